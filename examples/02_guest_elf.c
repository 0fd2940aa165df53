/* 02_guest_elf.c - a guest in an ELF file of its own. You learn: host functions with user data, handles, the guest's log,
   failures that leave the sandbox usable, faults that do not, and going back to a snapshot.

   cc: cc -O2 -DHLSNAP_GUEST -nostdlib -static -I.. guests/greet.c -o greet.elf
   cc: cc -std=c11 -I.. 02_guest_elf.c -o 02_guest_elf
   run: ./02_guest_elf greet.elf
   prints: [info] greeting number 1
   prints: Hello, Dr. Ada!
   prints: HLSNAP_ERR_FUNCTION 42: greet: nobody to greet
   prints: HLSNAP_ERR_FAULT: write to the null region, the sandbox is poisoned
   prints: after the restore: 1 greeted */
#define HLSNAP_IMPLEMENTATION
#include "hlsnap.h"
#include "hlsnap_kvm.h"
#include <stdio.h>

static hlsnap_result title_of(hlsnap_call *call, void *user) { /* user: as in the row below */
    return hlsnap_call_return(call, hlsnap_str((const char *)user));
}

static void print_log(int level, const char *text, size_t size, void *user) {
    static const char *const names[] = {"print", "error", "warning", "info", "debug"};
    fprintf((FILE *)user, "[%s] %.*s\n", names[level], (int)size, text);
}

static int fail(hlsnap_result r, const hlsnap_error *err) {
    fprintf(stderr, "%s: %s\n", hlsnap_result_name(r), err->msg);
    return r == HLSNAP_ERR_HYPERVISOR ? 77 : 1;
}

static int tour(hlsnap_sandbox *sb, hlsnap_snapshot **snapshot) {
    hlsnap_invocation greet = HLSNAP_ZERO;
    hlsnap_value name = hlsnap_str("Ada"), out;
    hlsnap_error err;
    hlsnap_result r = hlsnap_sandbox_find(sb, "greet", "str(str)", &greet.target, &err);
    greet.args = &name;
    greet.num_args = 1;
    if (!r) r = hlsnap_sandbox_invoke(sb, &greet, 1, &out, NULL, &err);
    if (r) return fail(r, &err);
    puts(out.str);

    name = hlsnap_str("");                                   /* a failure: nothing is lost */
    r = hlsnap_sandbox_invoke(sb, &greet, 1, &out, NULL, &err);
    printf("%s %d: %s\n", hlsnap_result_name(r), err.user_code, err.msg);

    r = hlsnap_sandbox_snapshot(sb, snapshot, &err);
    if (r) return fail(r, &err);
    r = hlsnap_sandbox_call(sb, "crash", HLSNAP_NO_ARGS, NULL, &err); /* a fault: the sandbox refuses to go on */
    printf("%s: write to the %s region, the sandbox is %s\n", hlsnap_result_name(r), err.region,
           hlsnap_sandbox_get_state(sb) == HLSNAP_POISONED ? "poisoned" : "ready");
    r = hlsnap_sandbox_restore(sb, *snapshot, &err);
    if (!r) r = hlsnap_sandbox_call(sb, "greeted", HLSNAP_NO_ARGS, &out, &err);
    if (r) return fail(r, &err);
    printf("after the restore: %u greeted\n", out.as.u32);
    return 0;
}

int main(int argc, char **argv) {
    static char title[] = "Dr.";
    const hlsnap_function functions[] = {{"title_of", "str(str)", title_of, title}};
    hlsnap_guest_desc guest = HLSNAP_ZERO;
    hlsnap_sandbox_desc desc = HLSNAP_ZERO;
    hlsnap_sandbox *sb = NULL;
    hlsnap_snapshot *snapshot = NULL;
    hlsnap_error err;
    hlsnap_result r;
    int status;
    guest.path = argc > 1 ? argv[1] : "greet.elf";
    desc.hypervisor = hlsnap_kvm();
    desc.functions = functions;
    desc.num_functions = HLSNAP_COUNT(functions);
    desc.log = print_log;
    desc.log_user = stdout;
    desc.log_level = 3;
    r = hlsnap_sandbox_create(&guest, &desc, &sb, &err);
    status = r ? fail(r, &err) : tour(sb, &snapshot);
    hlsnap_snapshot_release(snapshot);
    hlsnap_sandbox_destroy(sb);
    return status;
}

/* 01_hello.c - the smallest whole program: host and guest in one file. You learn: exports, imports, a call each way.

   cc: cc -std=c11 -I.. 01_hello.c -o 01_hello
   run: ./01_hello
   prints: Hello, World! Today is Monday. */
#define HLSNAP_IMPLEMENTATION
#include "hlsnap.h"
#include "hlsnap_kvm.h"
#include <stdio.h>

/* Guest side: runs in a VM, in a fresh copy of this very program. It sees none of the host's memory and has no libc, no
   files, no system calls; all it can do is compute, and call what the host hands it. */
static hlsnap_result say_hello(hlsnap_call *call, void *user) {
    hlsnap_value day;
    (void)user;
    if (hlsnap_rt_call("get_weekday", HLSNAP_NO_ARGS, &day, NULL)) return hlsnap_call_fail(call, 1, "no weekday");
    return hlsnap_call_return_fmt(call, "Hello, %s! Today is %s.", hlsnap_call_arg(call, 0).str, day.str);
}
static const hlsnap_function exports[] = {{"say_hello", "str(str)", say_hello, NULL}};
static const hlsnap_function imports[] = {{"get_weekday", "str()", NULL, NULL}};
static const hlsnap_module hello = {exports, HLSNAP_COUNT(exports), imports, HLSNAP_COUNT(imports)};

/* Host side. */
static hlsnap_result get_weekday(hlsnap_call *call, void *user) {
    (void)user;
    return hlsnap_call_return(call, hlsnap_str("Monday"));
}
static const hlsnap_function functions[] = {{"get_weekday", "str()", get_weekday, NULL}};

int main(void) {
    hlsnap_guest_desc guest = HLSNAP_ZERO;
    hlsnap_sandbox_desc desc = HLSNAP_ZERO;
    hlsnap_sandbox *sb = NULL;
    hlsnap_value out;
    hlsnap_error err;
    hlsnap_result r;
    guest.self = &hello;
    desc.hypervisor = hlsnap_kvm();
    desc.functions = functions;
    desc.num_functions = HLSNAP_COUNT(functions);
    r = hlsnap_sandbox_create(&guest, &desc, &sb, &err);
    if (!r) r = hlsnap_sandbox_call(sb, "say_hello", HLSNAP_ARGS(hlsnap_str("World")), &out, &err);
    if (!r) puts(out.str);
    else fprintf(stderr, "%s: %s\n", hlsnap_result_name(r), err.msg);
    hlsnap_sandbox_destroy(sb);
    return r == HLSNAP_OK ? 0 : r == HLSNAP_ERR_HYPERVISOR ? 77 : 1;
}

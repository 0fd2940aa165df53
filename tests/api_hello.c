/* api_hello.c - public names only: one file is host and guest; calls both ways, a failing function, an abort, a refused call.
   cc: cc -I.. api_hello.c -o api_hello
   run: ./api_hello      prints the lines that compile_matrix.sh expects; exit 77 without a hypervisor */
#define HLSNAP_IMPLEMENTATION
#include "hlsnap.h"
#include "hlsnap_kvm.h"
#include <stdio.h>

/* guest side */
static hlsnap_result tell(hlsnap_call *call, void *user) {
    hlsnap_value args[1], price;
    hlsnap_error err;
    args[0] = hlsnap_call_arg(call, 0);
    if (hlsnap_rt_call("price", args, 1, &price, &err)) return hlsnap_call_fail(call, err.user_code + 1, err.msg);
    hlsnap_rt_log(1, "told about %s", args[0].str);
    return hlsnap_call_return_fmt(call, "%s costs %.2f %s", args[0].str, price.as.f64, (const char *)user);
}
static hlsnap_result give_up(hlsnap_call *call, void *user) {
    (void)user;
    hlsnap_rt_abort(hlsnap_call_arg(call, 0).as.i32, "gave up");
}
static char currency[] = "EUR";
static const hlsnap_function exports[] = {{"tell", "str(str)", tell, currency}, {"give_up", "void(i32)", give_up, NULL}};
static const hlsnap_function imports[] = {{"price", "f64(str)", NULL, NULL}};
static const hlsnap_module shop = {exports, HLSNAP_COUNT(exports), imports, HLSNAP_COUNT(imports)};

/* host side */
static hlsnap_result price(hlsnap_call *call, void *user) {
    if (hlsnap_call_arg(call, 0).str[0] == 'x') return hlsnap_call_fail(call, 6, "never heard of it");
    return hlsnap_call_return(call, hlsnap_f64(*(const double *)user));
}
static double each = 1.25;
static const hlsnap_function functions[] = {{"price", "f64(str)", price, &each}};
static void show(int level, const char *text, size_t size, void *user) {
    fprintf((FILE *)user, "log %d: %.*s\n", level, (int)size, text);
}

int main(void) {
    hlsnap_guest_desc guest = HLSNAP_ZERO;
    hlsnap_sandbox_desc desc = HLSNAP_ZERO;
    hlsnap_sandbox *sb = NULL;
    hlsnap_value out;
    hlsnap_error err;
    hlsnap_result r;
    if (hlsnap_kvm_probe(&err)) return fprintf(stderr, "%s\n", err.msg) < 0 ? 1 : 77;
    guest.self = &shop;
    desc.hypervisor = hlsnap_kvm();
    desc.functions = functions;
    desc.num_functions = HLSNAP_COUNT(functions);
    desc.log = show;
    desc.log_user = stdout;
    if (hlsnap_sandbox_create(&guest, &desc, &sb, &err)) return fprintf(stderr, "%s\n", err.msg) < 0 ? 2 : 1;
    if (!hlsnap_sandbox_call(sb, "tell", HLSNAP_ARGS(hlsnap_str("tea")), &out, &err)) puts(out.str);
    currency[0] = 'X'; /* the host's copy only */
    each = 2.5;
    if (!hlsnap_sandbox_call(sb, "tell", HLSNAP_ARGS(hlsnap_str("cake")), &out, &err)) puts(out.str);
    r = hlsnap_sandbox_call(sb, "tell", HLSNAP_ARGS(hlsnap_str("xyz")), &out, &err);
    printf("%s %d, still ready: %d\n", hlsnap_result_name(r), (int)err.user_code, hlsnap_sandbox_get_state(sb) == HLSNAP_READY);
    r = hlsnap_sandbox_call(sb, "tell", HLSNAP_ARGS(hlsnap_i32(1)), &out, &err);
    printf("%s, %s\n", hlsnap_result_name(r), hlsnap_result_name(hlsnap_sandbox_call(sb, "ask", HLSNAP_NO_ARGS, &out, &err)));
    r = hlsnap_sandbox_call(sb, "give_up", HLSNAP_ARGS(hlsnap_i32(7)), NULL, &err);
    printf("%s %d, poisoned: %d\n", hlsnap_result_name(r), (int)err.user_code, hlsnap_sandbox_get_state(sb) == HLSNAP_POISONED);
    hlsnap_sandbox_destroy(sb);
    return 0;
}

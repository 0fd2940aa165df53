/* guest_golden.c - guest of test_golden.c: every type each way, and a state that a delta holds. */
#define HLSNAP_IMPLEMENTATION
#include "hlsnap.h"

static uint32_t count = 40;
static uint8_t *block; /* heap pages that only a delta has */

static hlsnap_result same(hlsnap_call *call, void *user) {
    (void)user;
    return hlsnap_call_return(call, hlsnap_call_arg(call, 0));
}

/* Gives all it got to the host and returns what comes back. */
static hlsnap_result relay(hlsnap_call *call, void *user) {
    hlsnap_value args[9], out = HLSNAP_ZERO;
    size_t i;
    (void)user;
    for (i = 0; i < HLSNAP_COUNT(args); i++) args[i] = hlsnap_call_arg(call, i);
    if (hlsnap_rt_call("host", args, HLSNAP_COUNT(args), &out, NULL)) return hlsnap_call_fail(call, -7, "the host failed");
    return hlsnap_call_return(call, out);
}

static hlsnap_result next(hlsnap_call *call, void *user) {
    (void)user;
    if (!block) block = (uint8_t *)hlsnap_rt_calloc(2, 4096);
    if (!block) return hlsnap_call_fail(call, 1, "no memory");
    return hlsnap_call_return(call, hlsnap_u32(++count + ++block[4096]));
}

static const hlsnap_function exports[] = {
    {"same_bool", "bool(bool)", same, NULL}, {"same_i32", "i32(i32)", same, NULL}, {"same_u32", "u32(u32)", same, NULL},
    {"same_i64", "i64(i64)", same, NULL},    {"same_u64", "u64(u64)", same, NULL}, {"same_f32", "f32(f32)", same, NULL},
    {"same_f64", "f64(f64)", same, NULL},    {"same_str", "str(str)", same, NULL}, {"same_bytes", "bytes(bytes)", same, NULL},
    {"relay", "bytes(bool,i32,u32,i64,u64,f32,f64,str,bytes)", relay, NULL}, {"next", "u32()", next, NULL}};
static const hlsnap_function imports[] = {{"host", "bytes(bool,i32,u32,i64,u64,f32,f64,str,bytes)", NULL, NULL}};
static const hlsnap_module module = {exports, HLSNAP_COUNT(exports), imports, HLSNAP_COUNT(imports)};
HLSNAP_GUEST_MAIN(module);

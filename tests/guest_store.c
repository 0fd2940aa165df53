/* guest_store.c - guest of test_store.c: fills and sums pages of its heap. */
#define HLSNAP_IMPLEMENTATION
#include "hlsnap.h"

static uint8_t *block; /* page-aligned, once it is there */

static uint32_t *page(uint32_t i) {
    if (!block) {
        uint8_t *p = (uint8_t *)hlsnap_rt_malloc(255u << 20);
        if (!p) p = (uint8_t *)hlsnap_rt_malloc(12u << 20);
        if (!p) hlsnap_rt_abort(1, "no memory");
        block = p + (4096 - (uintptr_t)p % 4096);
    }
    return (uint32_t *)(void *)(block + (size_t)i * 4096);
}

static hlsnap_result touch(hlsnap_call *call, void *user) {
    uint32_t i;
    (void)user;
    for (i = 0; i < hlsnap_call_arg(call, 0).as.u32; i++) *page(i) = hlsnap_call_arg(call, 1).as.u32;
    return HLSNAP_OK;
}

static hlsnap_result sum(hlsnap_call *call, void *user) {
    uint32_t i, n = 0;
    (void)user;
    for (i = 0; i < hlsnap_call_arg(call, 0).as.u32; i++) n += *page(i);
    return hlsnap_call_return(call, hlsnap_u32(n));
}

/* An effect before the call ends. */
static hlsnap_result say(hlsnap_call *call, void *user) {
    (void)call, (void)user;
    hlsnap_rt_print("said");
    return HLSNAP_OK;
}

static const hlsnap_function exports[] = {{"touch", "void(u32,u32)", touch, NULL}, {"sum", "u32(u32)", sum, NULL}, {"say", "void()", say, NULL}};
static const hlsnap_module module = {exports, HLSNAP_COUNT(exports), NULL, 0};
HLSNAP_GUEST_MAIN(module);

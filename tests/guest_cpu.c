/* guest_cpu.c - guest of test_cpu.c: what the CPU is said to be, asked of the instructions themselves. */
#define HLSNAP_IMPLEMENTATION
#include "hlsnap.h"

/* eax, ebx, ecx, edx of CPUID. */
static hlsnap_result cpuid(hlsnap_call *call, void *user) {
    uint32_t r[4];
    (void)user;
    __asm__ volatile("cpuid" : "=a"(r[0]), "=b"(r[1]), "=c"(r[2]), "=d"(r[3])
                     : "0"(hlsnap_call_arg(call, 0).as.u32), "2"(hlsnap_call_arg(call, 1).as.u32));
    return hlsnap_call_return(call, hlsnap_bytes(r, sizeof(r)));
}

static hlsnap_result xcr0(hlsnap_call *call, void *user) {
    uint32_t a, d;
    (void)user;
    __asm__ volatile(".byte 0x0f, 0x01, 0xd0" : "=a"(a), "=d"(d) : "c"(0));
    return hlsnap_call_return(call, hlsnap_u64(a | (uint64_t)d << 32));
}

/* vpaddd %ymm0, %ymm0, %ymm0: AVX2 */
static hlsnap_result avx2(hlsnap_call *call, void *user) {
    (void)call, (void)user;
    __asm__ volatile(".byte 0xc5, 0xfd, 0xfe, 0xc0" : : : "xmm0");
    return HLSNAP_OK;
}

/* What CPUID said in init, before anything else ran. */
static uint32_t at_init;

static hlsnap_result first(hlsnap_call *call, void *user) {
    (void)user;
    return hlsnap_call_return(call, hlsnap_u32(at_init));
}

__attribute__((constructor)) static void note(void) {
    uint32_t a = 1, b, d;
    __asm__ volatile("cpuid" : "+a"(a), "=b"(b), "=c"(at_init), "=d"(d));
}

static const hlsnap_function exports[] = {
    {"cpuid", "bytes(u32,u32)", cpuid, NULL}, {"xcr0", "u64()", xcr0, NULL}, {"avx2", "void()", avx2, NULL}, {"first", "u32()", first, NULL}};
static const hlsnap_module module = {exports, HLSNAP_COUNT(exports), NULL, 0};
HLSNAP_GUEST_MAIN(module);

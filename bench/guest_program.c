/* guest_program.c - the guest of programs.c: the same exports freestanding and as a Linux program of any libc.

   cc: see ./run */
#define HLSNAP_IMPLEMENTATION
#include "hlsnap.h"

enum { CALLS = 1000 };
static volatile uint64_t page[512]; /* what a call writes of its own */

static hlsnap_result on_nop(hlsnap_call *call, void *user) {
    (void)user;
    page[0]++;
    return hlsnap_call_return(call, hlsnap_i32(hlsnap_call_arg(call, 0).as.i32 + 1));
}

#ifdef HLSNAP_GUEST_LIBC
/* Ticks of the time stamp counter that CALLS of getppid (110) take, once they are warm. */
static hlsnap_result on_syscalls(hlsnap_call *call, void *user) {
    uint64_t start = 0;
    (void)user;
    for (int i = -CALLS / 10; i < CALLS; i++) {
        long r;
        if (i == 0) start = __builtin_ia32_rdtsc();
        __asm__ volatile("syscall" : "=a"(r) : "a"(110l) : "rcx", "r11", "memory");
    }
    return hlsnap_call_return(call, hlsnap_u64(__builtin_ia32_rdtsc() - start));
}
#endif

static const hlsnap_function exports[] = {
    {"nop", "i32(i32)", on_nop, NULL},
#ifdef HLSNAP_GUEST_LIBC
    {"syscalls", "u64()", on_syscalls, NULL},
#endif
};
static const hlsnap_module module = {exports, HLSNAP_COUNT(exports), NULL, 0};
const hlsnap_module *const hlsnap_rt_module = &module;

#ifdef HLSNAP_GUEST_LIBC
int main(void) { hlsnap_rt_serve(); }
#endif

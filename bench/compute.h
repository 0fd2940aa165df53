/* compute.h - the fixed native workload of the compute benchmark.

   The same source runs on the host (bench/limit.h) and inside a guest. No libc, no globals; nothing
   is defined but the include guard. compute_run(1) has one right answer, so a wrong run cannot pass
   as a fast one: compute_xorshift(1, 10000000) == 0x6b6df80b9cac79dc compute_fib(30) == 832040 The
   caller must hide the seed from the optimiser (read it through a volatile), or the work may be
   done once. */
#ifndef COMPUTE_H
#define COMPUTE_H

#include <stdint.h>

/* A chain of dependent 64-bit operations in registers: no memory, no parallelism to hide behind. */
static __attribute__((noinline, unused)) uint64_t compute_xorshift(uint64_t x, uint32_t rounds)
{
    for (uint32_t i = 0; i < rounds; i++) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
    }
    return x;
}

/* Calls, returns and stack traffic. */
static __attribute__((noinline, unused)) uint32_t compute_fib(uint32_t n)
{
    return n < 2 ? n : compute_fib(n - 1) + compute_fib(n - 2);
}

/* The whole workload: 10M xorshift rounds, then fib(30). The seed 1 gives compute_expected(). */
static __attribute__((noinline, unused)) uint64_t compute_run(uint64_t seed)
{
    uint64_t x = compute_xorshift(seed, 10000000);

    return x + compute_fib(29 + (uint32_t)(seed & 1));
}

static __attribute__((unused)) uint64_t compute_expected(void)
{
    return UINT64_C(0x6b6df80b9cac79dc) + 832040;
}

#endif

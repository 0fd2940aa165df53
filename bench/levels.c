/* levels.c - what a CPU level costs: the same work of libc and of a compiler at each level, on the host itself. Prints
   milliseconds, the best of 9: memcpy, memset and strlen of 16 KiB (4,000 times each), memcpy of 1 to 64 bytes (1,000,000 times), y += 1.5 x over
   4,096 doubles (2,000 times). Not included: a VM; restores at v1 and v2, which clear vector state by a system call.
   cc: gcc -O3 -march=x86-64-v3 levels.c -o levels_v3
   run: GLIBC_TUNABLES=glibc.cpu.hwcaps=-AVX512F,-AVX512VL,-AVX512BW,-ERMS,-FSRM ./levels_v3 */
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

static char a[1 << 16], b[1 << 16];
static double x[4096], y[4096];
static volatile size_t length;

static void clobber(const void *p) { __asm__ volatile("" : : "r"(p) : "memory"); }

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

static double best(void (*f)(void)) {
    double least = 1e9;
    int i;
    for (i = 0; i < 9; i++) {
        double t = now();
        f();
        t = now() - t;
        if (t < least) least = t;
    }
    return least;
}

static void copies(void) {
    int i;
    for (i = 0; i < 4000; i++, clobber(a)) memcpy(a, b, 1 << 14);
}

static void fills(void) {
    int i;
    for (i = 0; i < 4000; i++, clobber(a)) memset(a, i, 1 << 14);
}

static void lengths(void) {
    int i;
    memset(a, 1, 1 << 14);
    a[1 << 14] = 0;
    for (i = 0; i < 4000; i++, clobber(a)) length = strlen(a);
}

static void small_copies(void) {
    int i;
    for (i = 0; i < 1000000; i++, clobber(a)) memcpy(a, b, (size_t)(i & 63) + 1);
}

static void loop(void) {
    int i, k;
    for (k = 0; k < 2000; k++, clobber(y))
        for (i = 0; i < 4096; i++) y[i] += x[i] * 1.5;
}

int main(void) {
    printf("memcpy %.2f memset %.2f strlen %.2f small %.2f loop %.2f\n", best(copies), best(fills), best(lengths), best(small_copies),
           best(loop));
    return 0;
}

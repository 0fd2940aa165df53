/* builtins.c - what -ffreestanding costs a guest: the same guest code and the runtime's functions, compiled in three ways, called in
   turns. builtins.sh builds and runs it; it needs no /dev/kvm, since guest code runs as fast there as here.
   Not included: what a guest pays for entries, page faults and host functions. */
#define W2(name, version) name##_##version
#define W1(name, version) W2(name, version)
#ifdef VERSION
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#define HLSNAP_IMPLEMENTATION
#include "hlsnap.h"
static const hlsnap_module module = {NULL, 0, NULL, 0};
HLSNAP_GUEST_MAIN(module);

#define WORK(name) \
    unsigned long W1(name, VERSION)(unsigned long n); \
    __attribute__((noinline, visibility("default"))) unsigned long W1(name, VERSION)(unsigned long n)

typedef struct row { char name[24]; int id; double x, y, z, w; } row;
static row rows[256];
static unsigned char from[8192], to[8192];

WORK(small) { /* copies and fills of constant size, as parsers and games have them */
    unsigned long i, sum = 0;
    for (i = 0; i < n; i++) {
        uint32_t u = (uint32_t)i * 2654435761u;
        float f;
        row r;
        memset(&r, 0, sizeof(r));
        memcpy(r.name, "name-of-row", 12);
        memcpy(&f, &u, sizeof(f));
        r.id = (int)i;
        r.x = (double)f;
        memcpy(&rows[i & 255], &r, sizeof(r));
        memcpy(from + (i & 1023), &u, sizeof(u));
        memcpy(&u, from + (i & 511), sizeof(u));
        sum += u;
    }
    return sum + (unsigned long)rows[3].id;
}
WORK(strings) { /* short ones, some of them constant */
    static const char *const words[] = {"alpha", "beta", "gamma", "delta", "epsilon"};
    unsigned long i, sum = 0;
    for (i = 0; i < n; i++) {
        const char *w = words[i % 5];
        sum += strlen(w) + strlen("constant") + (strcmp(w, "gamma") == 0) + (strncmp(w, "de", 2) == 0);
        sum += (memcmp(w, "beta", 4) == 0) + (strchr(w, 'a') != NULL);
    }
    return sum;
}
WORK(text) {
    unsigned long i, sum = 0;
    char line[80];
    for (i = 0; i < n; i++) {
        snprintf(line, sizeof(line), "%s/%d: %u %x", "key", (int)i, (unsigned)i * 7u, (unsigned)i);
        sum += strlen(line);
    }
    return sum;
}
WORK(bulk) { /* 64 bytes to 4 KiB */
    unsigned long i, sum = 0;
    for (i = 0; i < n; i++) {
        const size_t k = 64 + i * 97 % 4000;
        memcpy(to, from, k);
        memset(from + (i & 63), (int)i, k / 2);
        sum += to[k - 1];
    }
    return sum;
}
WORK(numbers) {
    unsigned long i, sum = 0;
    for (i = 0; i < n; i++) sum += (unsigned long)abs((int)i - 500) + (unsigned long)labs((long)i - 900);
    return sum;
}
#else
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#define ROW(name) extern unsigned long name##_a(unsigned long), name##_b(unsigned long), name##_c(unsigned long);
ROW(small) ROW(strings) ROW(text) ROW(bulk) ROW(numbers)
#undef ROW
#define ROW(name, n) {#name, {name##_a, name##_b, name##_c}, n}
enum { BLOCKS = 301 };

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}
static int by_value(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

int main(void) {
    static const struct { const char *name; unsigned long (*run[3])(unsigned long); unsigned long n; } rows[] = {
        ROW(small, 20000), ROW(strings, 20000), ROW(text, 2000), ROW(bulk, 4000), ROW(numbers, 20000)};
    static double ns[3][BLOCKS];
    unsigned long answer[3];
    size_t i, k, v;
    printf("%-8s  -ffreestanding ns  builtins (ratio)  -fno-builtin (ratio)\n", "");
    for (i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        for (k = 0; k < BLOCKS; k++)
            for (v = 0; v < 3; v++) {
                const size_t w = (v + k) % 3;
                const double start = now();
                answer[w] = rows[i].run[w](rows[i].n);
                ns[w][k] = (now() - start) / (double)rows[i].n;
            }
        for (v = 0; v < 3; v++) qsort(ns[v], BLOCKS, sizeof(ns[v][0]), by_value);
        printf("%-8s  %7.2f            %7.2f (%.2f)    %7.2f (%.2f)\n", rows[i].name, ns[0][BLOCKS / 2], ns[1][BLOCKS / 2],
               ns[1][BLOCKS / 2] / ns[0][BLOCKS / 2], ns[2][BLOCKS / 2], ns[2][BLOCKS / 2] / ns[0][BLOCKS / 2]);
        if (answer[0] != answer[1] || answer[1] != answer[2]) return 1;
    }
    return 0;
}
#endif

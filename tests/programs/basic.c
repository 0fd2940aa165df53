/* basic.c - a guest that is a Linux program of whatever libc it is built with: what every libc must be able to do in a sandbox. */
#define HLSNAP_GUEST_LIBC
#define HLSNAP_IMPLEMENTATION
#include "hlsnap.h"
#include <errno.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

static uint32_t calls;
static int main_argc;
static char main_args[256];
static uint8_t *wiped;
static volatile int *volatile nowhere = (volatile int *)16;

static hlsnap_result greet(hlsnap_call *call, void *user) {
    char text[300];
    (void)user;
    calls++;
    printf("greeting %s\n", hlsnap_call_arg(call, 0).str);
    snprintf(text, sizeof(text), "hello %s, %.3f, call %u, %d:%s", hlsnap_call_arg(call, 0).str, sqrt(2.0), calls, main_argc,
             main_args);
    return hlsnap_call_return(call, hlsnap_str(text));
}

/* Allocates and fills so many MiB, checks them, and gives them back; how many there were. */
static hlsnap_result fill(hlsnap_call *call, void *user) {
    const uint32_t mib = hlsnap_call_arg(call, 0).as.u32;
    uint32_t i, k, n = 0;
    uint8_t **p = (uint8_t **)calloc(mib + 1, sizeof(*p));
    (void)user;
    for (i = 0; p && i < mib; i++) {
        p[i] = (uint8_t *)malloc(1 << 20);
        if (!p[i]) break;
        memset(p[i], (int)(i & 255), 1 << 20);
    }
    for (k = 0; p && k < i; k++) n += p[k][0] == (k & 255) && p[k][(1 << 20) - 1] == (k & 255);
    for (k = 0; p && k < i; k++) free(p[k]);
    free(p);
    return hlsnap_call_return(call, hlsnap_u32(n));
}

static hlsnap_result now(hlsnap_call *call, void *user) {
    struct timespec t;
    (void)user;
    if (clock_gettime((clockid_t)hlsnap_call_arg(call, 0).as.i32, &t)) return hlsnap_call_fail(call, errno, "clock_gettime");
    return hlsnap_call_return(call, hlsnap_u64((uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec));
}

/* What clones must not share: getrandom, pid, and whether the page of MADV_WIPEONFORK was wiped; then it is set again. */
static hlsnap_result own(hlsnap_call *call, void *user) {
    uint64_t random = 0;
    char text[100];
    (void)user;
    if (getrandom(&random, sizeof(random), 0) != sizeof(random)) return hlsnap_call_fail(call, errno, "getrandom");
    snprintf(text, sizeof(text), "%016llx %d %d", (unsigned long long)random, (int)getpid(), wiped[0]);
    wiped[0] = 1;
    return hlsnap_call_return(call, hlsnap_str(text));
}

static hlsnap_result file(hlsnap_call *call, void *user) {
    const char *text = hlsnap_call_arg(call, 0).str;
    char back[300] = "";
    FILE *f = fopen("/tmp/x", "a+");
    (void)user;
    if (!f) return hlsnap_call_fail(call, errno, strerror(errno));
    fputs(text, f);
    rewind(f);
    if (!fgets(back, sizeof(back), f)) strcpy(back, "(nothing)");
    fclose(f);
    return hlsnap_call_return(call, hlsnap_str(back));
}

static hlsnap_result leave(hlsnap_call *call, void *user) {
    (void)user;
    exit(hlsnap_call_arg(call, 0).as.i32);
}

static hlsnap_result die(hlsnap_call *call, void *user) {
    (void)user;
    if (hlsnap_call_arg(call, 0).as.i32 == 0) abort();
    if (hlsnap_call_arg(call, 0).as.i32 == 1) *nowhere = 1;
    raise(hlsnap_call_arg(call, 0).as.i32);
    return hlsnap_call_return(call, hlsnap_i32(0));
}

static int deep(int n, volatile char *up) {
    volatile char here[4096];
    here[0] = up ? up[0] : 1;
    return n ? deep(n - 1, here) + here[0] : here[0];
}
static hlsnap_result stack(hlsnap_call *call, void *user) {
    (void)user;
    return hlsnap_call_return(call, hlsnap_i32(deep(hlsnap_call_arg(call, 0).as.i32, NULL)));
}

/* A frame larger than a page, which not every compiler probes: it must not leap over the guard. */
__attribute__((__noinline__)) static int wide(int n) {
    volatile char here[2 << 20];
    here[0] = (char)n;
    return here[0];
}
static hlsnap_result leap(hlsnap_call *call, void *user) {
    (void)user;
    return hlsnap_call_return(call, hlsnap_i32(wide(hlsnap_call_arg(call, 0).as.i32)));
}

/* Takes blocks of n bytes until there are no more, and gives all back: errno of the one that failed. */
static hlsnap_result exhaust(hlsnap_call *call, void *user) {
    const size_t n = hlsnap_call_arg(call, 0).as.u32;
    void **list = NULL, **p;
    int e = 0;
    (void)user;
    for (;;) {
        errno = 0;
        p = (void **)malloc(n);
        if (!p) e = errno;
        if (!p) break;
        memset(p, 1, n);
        *p = (void *)list;
        list = p;
    }
    while (list) {
        p = (void **)*list;
        free(list);
        list = p;
    }
    return hlsnap_call_return(call, hlsnap_i32(e));
}

static hlsnap_result spin(hlsnap_call *call, void *user) {
    const int asks = hlsnap_call_arg(call, 0).as.i32;
    volatile int goes_on = 1;
    (void)user;
    while (goes_on)
        if (asks) getppid();
    return HLSNAP_OK;
}

/* A system call by its number, with plain arguments: result or -errno. */
static hlsnap_result raw(hlsnap_call *call, void *user) {
    long a[7], r;
    size_t i;
    for (i = 0; i < 7; i++) a[i] = (long)hlsnap_call_arg(call, i).as.i64;
    r = syscall(a[0], a[1], a[2], a[3], a[4], a[5], a[6]);
    (void)user;
    return hlsnap_call_return(call, hlsnap_i64(r < 0 ? -errno : r));
}

/* n system calls of the cheapest kind; cycles each. */
static hlsnap_result cycles(hlsnap_call *call, void *user) {
    const uint32_t n = hlsnap_call_arg(call, 0).as.u32;
    uint64_t start, i;
    (void)user;
    start = __builtin_ia32_rdtsc();
    for (i = 0; i < n; i++) syscall(110); /* getppid */
    return hlsnap_call_return(call, hlsnap_u64((__builtin_ia32_rdtsc() - start) / n));
}

static hlsnap_result twice(hlsnap_call *call, void *user) {
    hlsnap_value v;
    hlsnap_error err;
    (void)user;
    if (hlsnap_rt_call("host_add", HLSNAP_ARGS(hlsnap_i32(20), hlsnap_i32(1)), &v, &err)) return hlsnap_call_fail(call, 1, err.msg);
    return hlsnap_call_return(call, hlsnap_i32(2 * v.as.i32));
}

static const hlsnap_function exports[] = {
    {"greet", "str(str)", greet, NULL}, {"fill", "u32(u32)", fill, NULL},
    {"now", "u64(i32)", now, NULL}, {"own", "str()", own, NULL},
    {"file", "str(str)", file, NULL}, {"leave", "i32(i32)", leave, NULL},
    {"die", "i32(i32)", die, NULL}, {"stack", "i32(i32)", stack, NULL},
    {"raw", "i64(i64,i64,i64,i64,i64,i64,i64)", raw, NULL}, {"cycles", "u64(u32)", cycles, NULL},
    {"twice", "i32()", twice, NULL}, {"leap", "i32(i32)", leap, NULL},
    {"exhaust", "i32(u32)", exhaust, NULL}, {"spin", "i32(i32)", spin, NULL}};
static const hlsnap_function imports[] = {{"host_add", "i32(i32,i32)", NULL, NULL}};
static const hlsnap_module module = {exports, HLSNAP_COUNT(exports), imports, HLSNAP_COUNT(imports)};
HLSNAP_GUEST_MAIN(module);

int main(int argc, char **argv) {
    int i;
    main_argc = argc;
    for (i = 0; i < argc; i++) snprintf(main_args + strlen(main_args), sizeof(main_args) - strlen(main_args), "%s ", argv[i]);
    wiped = (uint8_t *)mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (wiped == MAP_FAILED || madvise(wiped, 4096, 18 /* MADV_WIPEONFORK */)) return 3;
    wiped[0] = 1;
    if (getenv("SAY")) printf("SAY=%s\n", getenv("SAY"));
    hlsnap_rt_serve();
}

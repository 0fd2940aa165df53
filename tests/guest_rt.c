#if defined(WITH_LIBC)
#define _GNU_SOURCE 1
#endif
/* guest_rt.c - what the guest runtime gives to its guest, tried from inside: the guest of test_guest.c.
   cc: cc -O2 -DHLSNAP_GUEST -ffreestanding -nostdlib -static -Wl,-z,now -I.. guest_rt.c -o guest_rt.elf
   Also -static-pie -fPIE (guest_rt_pie.elf), both with the addresses of indirect functions among what is read-only else; without -ffreestanding, with -DWITH_LIBC, musl's headers, libc.a and libm.a
   (guest_rt_musl.elf); and as a Linux program: musl-gcc -static -DHLSNAP_GUEST_LIBC (guest_rt_libc.elf). */
#define HLSNAP_IMPLEMENTATION
#include "hlsnap.h"
#if defined(WITH_LIBC) || defined(HLSNAP_GUEST_LIBC)
#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>
#else
extern void *memcpy(void *, const void *, size_t), *memchr(const void *, int, size_t), *aligned_alloc(size_t, size_t), *malloc(size_t);
extern char *strchr(const char *, int), *strrchr(const char *, int), *strstr(const char *, const char *);
extern int snprintf(char *, size_t, const char *, ...), vsnprintf(char *, size_t, const char *, va_list), bcmp(const void *, const void *, size_t);
extern int posix_memalign(void **, size_t, size_t), abs(int), strcmp(const char *, const char *), memcmp(const void *, const void *, size_t);
extern long labs(long);
extern long long llabs(long long);
extern void free(void *), *realloc(void *, size_t);
extern size_t strlen(const char *);
extern int *__errno_location(void);
#define errno (*__errno_location())
#endif
extern size_t malloc_usable_size(void *);
extern void __assert_fail(const char *, const char *, unsigned, const char *) __attribute__((noreturn));

static char wrong[512];
static void check(int ok, int line) {
    if (!ok) hlsnap_rt_snprintf(wrong + strlen(wrong), sizeof(wrong) - strlen(wrong), " %d", line);
}
#define CHECK(c) check(!!(c), __LINE__)

/* ---- indirect functions ---- */

#ifndef HLSNAP_GUEST_LIBC /* a libc's start applies them, or does not */
static int resolved;
static int forty_two(void) { return 42; }
static int (*choose(void))(void) {
    resolved++;
    return forty_two;
}
int indirect(void) __attribute__((ifunc("choose"), visibility("hidden")));
static int (*const constant[])(void) = {indirect};
static int (*variable[])(void) = {indirect};
static void indirect_functions(void) {
    volatile int i = 0;
    CHECK(indirect() == 42);
    CHECK(constant[i]() == 42 && variable[i]() == 42);
    CHECK(resolved >= 1);
}
#else
static void indirect_functions(void) {}
#endif

/* ---- the names of the C library ---- */

static int format(char *to, size_t n, const char *fmt, ...) {
    va_list ap;
    int k;
    va_start(ap, fmt);
    k = vsnprintf(to, n, fmt, ap);
    va_end(ap);
    va_start(ap, fmt);
    CHECK(hlsnap_rt_vsnprintf(NULL, 0, fmt, ap) == k);
    va_end(ap);
    return k;
}

static void strings(void) {
    volatile int minus = -5;
    volatile size_t four = 4;
    const char *s = "a long string, long";
    char to[32];
    CHECK(memchr(s, 'l', 19) == s + 2 && memchr(s, 'z', 19) == NULL && memchr(s, 'l', 2) == NULL);
    CHECK(strchr(s, 'l') == s + 2 && strchr(s, 0) == s + 19 && strrchr(s, 'l') == s + 15 && strrchr(s, 'z') == NULL);
    CHECK(strstr(s, "long") == s + 2 && strstr(s, "long,") == NULL && strstr(s, "") == s);
    CHECK(snprintf(to, sizeof(to), "%d %s %5.2f", 7, "x", 1.5) == 9 && strcmp(to, "7 x  1.50") == 0);
    CHECK(snprintf(to, four, "%s", "abcdef") == 6 && strcmp(to, "abc") == 0);
    CHECK(format(to, sizeof(to), "%x/%zu", 255u, (size_t)3) == 4 && strcmp(to, "ff/3") == 0);
    CHECK(bcmp("abc", "abd", 2) == 0 && bcmp("abc", "abd", 3) != 0);
    CHECK(abs(minus) == 5 && labs(minus * 3000000000l) == 15000000000l && llabs((long long)minus) == 5);
}

static void memory(void) {
    void *p, *q = NULL, *held[40];
    size_t i, k;
    for (i = 0; i < 40; i++) {
        const size_t align = (size_t)16 << i % 9, n = 1 + i * 37;
        p = aligned_alloc(align, (n + align - 1) / align * align);
        CHECK(p && (uintptr_t)p % align == 0 && malloc_usable_size(p) >= n);
        for (k = 0; p && k < n; k++) ((unsigned char *)p)[k] = (unsigned char)i;
        held[i] = p;
    }
    for (i = 0; i < 40; i++) {
        CHECK(((unsigned char *)held[i])[i * 37] == i);
        free(held[i]);
    }
    CHECK(posix_memalign(&q, 256, 100) == 0 && (uintptr_t)q % 256 == 0);
    q = realloc(q, 5000);
    CHECK(q && malloc_usable_size(q) >= 5000);
    free(q);
    CHECK(posix_memalign(&q, 3, 100) == 22 && posix_memalign(&q, 4, 100) == 22);
    CHECK(posix_memalign(&q, 64, (size_t)1 << 40) == 12);
    errno = 77;
    CHECK(errno == 77);
    errno = 0;
}

#if defined(WITH_LIBC)
static int by_value(const void *a, const void *b) { return *(const int *)a - *(const int *)b; }
static void library(void) {
    volatile double two = 2, minus = -1, huge = 1e300;
    int v[5] = {3, 1, 5, 2, 4}, key = 4, i, n = 0;
    char text[64], *end, *copy;
    double d;
    CHECK(pow(two, 10) == 1024 && fabs(sin(two) - 0.9092974268256817) < 1e-15 && fabs(exp(log(two)) - 2) < 1e-15);
    CHECK(floor(two + 0.5) == 2 && fmod(two * 3.5, two) == 1 && atan2(1, 1) > 0.78 && cbrtf(27) == 3 && lround(2.5) == 3);
    errno = 0;
    CHECK(isnan(sqrt(minus)) && isinf(pow(huge, two)));
    CHECK(strtol("999999999999999999999", NULL, 10) == 9223372036854775807l && errno == 34); /* ERANGE */
    errno = 0;
    CHECK(strtod("1e999", &end) > 1e308 && errno == 34 && !*end && strtod("2.5e-3x", &end) == 2.5e-3 && *end == 'x');
    CHECK(strtoull("ff", NULL, 16) == 255 && atoi("-12") == -12);
    qsort(v, 5, sizeof(v[0]), by_value);
    for (i = 0; i < 5; i++) CHECK(v[i] == i + 1);
    CHECK(bsearch(&key, v, 5, sizeof(v[0]), by_value) == &v[3]);
    CHECK(isalpha('a') && !isdigit('a') && toupper('a') == 'A' && isspace('\n'));
    CHECK(strpbrk("abc", "xc") && strspn("aab", "a") == 2 && strcspn("aab", "b") == 2);
    strcpy(text, "a,b,c");
    for (copy = strtok(text, ","); copy; copy = strtok(NULL, ",")) n++;
    CHECK(n == 3);
    copy = strdup("copied");
    CHECK(copy && strcmp(copy, "copied") == 0);
    free(copy);
    CHECK(sscanf("12 abc 1.5", "%d %15s %lf", &n, text, &d) == 3 && n == 12 && d == 1.5 && strcmp(text, "abc") == 0);
    CHECK(strcasecmp("AbC", "aBc") == 0 && memmem("abcd", 4, "cd", 2) != NULL && div(7, 2).rem == 1 && getenv("HOME") == NULL);
    CHECK(stpcpy(text, "ab") == text + 2 && strlcpy(text, "abc", 3) == 3);
    srand(1);
    CHECK(rand() != rand());
}
#else
static void library(void) {}
#endif

/* ---- system calls that the guest answers itself ---- */

#ifdef HLSNAP_GUEST_LIBC
extern int getppid(void);
static uint64_t hooked; /* what the hook was given for the last time */
/* Ruins all that a function may ruin, and makes a system call of its own. */
static long answer(long number, const long args[6], void *user) {
    long i, sum = 0;
    for (i = 5; i >= 0; i--) sum = sum * 10 + args[i];
    *(uint64_t *)user = (uint64_t)sum;
    __asm__ volatile("pcmpeqd %%xmm0, %%xmm0\n movdqa %%xmm0, %%xmm3\n movdqa %%xmm0, %%xmm15" : : : "xmm0", "xmm3", "xmm15");
    return number == 41 ? sum + getppid() : -38;
}
/* A call with arguments 1 to 6; what a vector register and the red zone held stays. */
__attribute__((noipa)) static long asks(long number, uint64_t *vector, uint64_t *zone) {
    register long d __asm__("r10") = 4, e __asm__("r8") = 5, f __asm__("r9") = 6;
    uint64_t y = 0, z = 0;
    long r;
    __asm__ volatile("lea -256(%%rsp), %%rsp\n movq %[x], %%xmm3\n mov %[x], -8(%%rsp)\n mov %[x], -128(%%rsp)\n syscall\n"
                     "movq %%xmm3, %[y]\n mov -8(%%rsp), %[z]\n and -128(%%rsp), %[z]\n lea 256(%%rsp), %%rsp"
                     : "=a"(r), [y] "=&r"(y), [z] "=&r"(z)
                     : "0"(number), "D"(1l), "S"(2l), "d"(3l), "r"(d), "r"(e), "r"(f), [x] "r"(0x0123456789abcdefull)
                     : "rcx", "r11", "xmm3", "memory");
    *vector = y;
    *zone = z;
    return r;
}
/* The direction flag is the program's before and after, and no call runs with it. */
__attribute__((noipa)) static void backwards(void) {
    char all[3 * 390] = {0}, *to = all + 390; /* of uname, and what lies around it */
    uint64_t flags, i, bad = 0;
    __asm__ volatile("std\n mov $63, %%eax\n syscall\n pushfq\n pop %[flags]\n cld" : [flags] "=r"(flags) : "D"(to) : "rax", "rcx", "r11", "memory", "cc");
    for (i = 0; i < sizeof(all); i++) bad += (i < 390 || i >= 780) && all[i];
    CHECK(flags & 0x400 && !bad && strcmp(to, "Linux") == 0);
    __asm__ volatile("mov $110, %%eax\n syscall\n pushfq\n pop %[flags]" : [flags] "=r"(flags) : : "rax", "rcx", "r11", "memory", "cc");
    CHECK(!(flags & 0x400));
}
static void system_calls(void) {
    uint64_t vector = 0, zone = 0;
    hlsnap_rt_on_syscall(answer, &hooked);
    CHECK(asks(41, &vector, &zone) == 654321 && hooked == 654321);
    CHECK(vector == 0x0123456789abcdefull && zone == vector);
    hooked = 0;
    CHECK(asks(53, &vector, &zone) == -38 && hooked == 654321); /* refused, and said: socketpair */
    CHECK(vector == 0x0123456789abcdefull && zone == vector);
    hooked = 0;
    CHECK(asks(110, &vector, &zone) == 0 && !hooked); /* getppid is there */
    hlsnap_rt_on_syscall(NULL, NULL);
    CHECK(asks(41, &vector, &zone) == -38 && !hooked);
    backwards();
}
#else
static void system_calls(void) {}
#endif

/* ---- exports ---- */

static uint32_t started, started_early;
static void on_start(void *user) {
    (void)user;
    started++;
    hlsnap_rt_print("started");
}

static hlsnap_result checks(hlsnap_call *call, void *user) {
    (void)user;
    wrong[0] = 0;
    indirect_functions();
    strings();
    memory();
    library();
    system_calls();
    started_early = started;
    return hlsnap_call_return(call, hlsnap_str(wrong));
}
static hlsnap_result count(hlsnap_call *call, void *user) { return (void)user, hlsnap_call_return(call, hlsnap_u32(started)); }
static hlsnap_result watch(hlsnap_call *call, void *user) {
    (void)user;
    hlsnap_rt_on_start(hlsnap_call_arg(call, 0).as.b ? on_start : NULL, NULL);
    return HLSNAP_OK;
}
static hlsnap_result now(hlsnap_call *call, void *user) { return (void)user, hlsnap_call_return(call, hlsnap_u64(hlsnap_rt_time_ns())); }
static hlsnap_result output(hlsnap_call *call, void *user) {
    const hlsnap_value v = hlsnap_call_arg(call, 1);
    (void)user;
    hlsnap_rt_write(hlsnap_call_arg(call, 0).as.i32, v.bytes, v.size);
    return hlsnap_call_return(call, hlsnap_u32((uint32_t)v.size));
}
static hlsnap_result output_many(hlsnap_call *call, void *user) { /* more than a mailbox */
    const size_t n = hlsnap_call_arg(call, 0).as.u32;
    unsigned char *p = (unsigned char *)malloc(n);
    size_t i;
    (void)user;
    for (i = 0; p && i < n; i++) p[i] = (unsigned char)(i * 7 >> 3);
    hlsnap_rt_write(1, p, p ? n : 0);
    free(p);
    return HLSNAP_OK;
}
static void *kept;
static hlsnap_result waste(hlsnap_call *call, void *user) { /* fills and frees, between blocks that live */
    const size_t n = hlsnap_call_arg(call, 0).as.u32;
    void *p[3];
    size_t i, k;
    (void)user;
    for (i = 0; i < 3; i++) {
        p[i] = malloc(n);
        for (k = 0; p[i] && k < n; k += 8) ((volatile unsigned char *)p[i])[k] = 0xa5;
    }
    kept = p[1];
    free(p[0]);
    free(p[2]);
    return HLSNAP_OK;
}
static hlsnap_result trim(hlsnap_call *call, void *user) { return (void)call, (void)user, hlsnap_rt_trim(), HLSNAP_OK; }
#ifdef WITH_LIBC /* what needs an operating system, or a libc that was started */
static hlsnap_result beyond(hlsnap_call *call, void *user) {
    (void)user;
    switch (hlsnap_call_arg(call, 0).as.i32) {
    case 0: puts("text"); fflush(stdout); break;
    case 1: return hlsnap_call_return(call, hlsnap_i32((int)strlen(strerror(2))));
    case 2: return hlsnap_call_return(call, hlsnap_i32((int)time(NULL)));
    case 3: return hlsnap_call_return(call, hlsnap_i32(mblen("\xc3\xa4", 2)));
    default: return hlsnap_call_return(call, hlsnap_i32(fopen("/dev/null", "r") != NULL));
    }
    return hlsnap_call_return(call, hlsnap_i32(0));
}
#else
static hlsnap_result beyond(hlsnap_call *call, void *user) { return (void)user, hlsnap_call_return(call, hlsnap_i32(0)); }
#endif
/* How numbers are rounded; 0..3 says how from now on. */
static hlsnap_result rounds(hlsnap_call *call, void *user) {
    const int32_t how = hlsnap_call_arg(call, 0).as.i32;
    uint32_t sse;
    uint16_t x87;
    (void)user;
    __asm__ volatile("stmxcsr %0\n fnstcw %1" : "=m"(sse), "=m"(x87));
    if (how >= 0) {
        const uint32_t sse_now = (sse & ~0x6000u) | (uint32_t)how << 13;
        const uint16_t x87_now = (uint16_t)((x87 & ~0xc00u) | (uint32_t)how << 10);
        __asm__ volatile("ldmxcsr %0\n fldcw %1" : : "m"(sse_now), "m"(x87_now));
    }
    return hlsnap_call_return(call, hlsnap_u32((sse >> 13 & 3) << 4 | (x87 >> 10 & 3)));
}
static hlsnap_result fail_assert(hlsnap_call *call, void *user) {
    (void)call;
    (void)user;
    __assert_fail("1 == 2", "file.c", 12, "fn");
}

static const hlsnap_function exports[] = {
    {"checks", "str()", checks, NULL}, {"count", "u32()", count, NULL}, {"watch", "void(bool)", watch, NULL},
    {"now", "u64()", now, NULL}, {"output", "u32(i32,bytes)", output, NULL}, {"output_many", "void(u32)", output_many, NULL},
    {"waste", "void(u32)", waste, NULL}, {"trim", "void()", trim, NULL}, {"beyond", "i32(i32)", beyond, NULL}, {"fail_assert", "void()", fail_assert, NULL},
    {"rounds", "u32(i32)", rounds, NULL}};
static const hlsnap_module module = {exports, HLSNAP_COUNT(exports), NULL, 0};
HLSNAP_GUEST_MAIN(module);
#ifdef HLSNAP_GUEST_LIBC
int main(void) {
    hlsnap_rt_on_start(on_start, NULL);
    hlsnap_rt_serve();
}
#else
__attribute__((constructor)) static void early(void) { hlsnap_rt_on_start(on_start, NULL); }
#endif

/* self_guest.c - a program (or, with -DSELF_SO, a shared object) that is its own guest, and what must hold in there however it was
   built. tests/self_matrix.sh builds it in many ways; it is C and C++.
   cc: cc -I.. self_guest.c -o self_guest
   run: ./self_guest         prints one line for each check that failed; exit 0, 1, or 77 without a hypervisor
        ./self_guest map|page|shared|none|middle     after it has mapped its file once more, whole or in part, below itself
        ./self_guest text    after its code was moved to memory without a file, as those do who want it in huge pages
        ./self_guest code    prints the result's name when it is a sandbox, or why there is no hypervisor
      without a hypervisor:
        ./self_guest wait    waits for a line on stdin before it looks at its own file; prints the result's name
        ./self_guest packed  prints the result's name and the message where the whole program lies in such memory
        ./self_guest removed removes its file, then as message
        ./self_guest message prints them for the program as it is */
#define HLSNAP_IMPLEMENTATION
#include "hlsnap.h"
#include "hlsnap_kvm.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>

#define NOINLINE __attribute__((noinline))

/* ---- guest side ---- */

static volatile int counter = 5;       /* the host changes these before the guest exists */
static volatile int cleared;
static __thread volatile int tls_counter = 7;
static __thread volatile char tls_zero[100];
static const char *const words[] = {"zero", "one", "two", "three"};
static const char *changed = "initial";
static volatile int built;             /* by a constructor, which runs in the program and not in the guest */
__attribute__((constructor)) static void build(void) { built = 1; }

NOINLINE static int fib(int n) { return n < 2 ? n : fib(n - 1) + fib(n - 2); }

static hlsnap_result guest_fib(hlsnap_call *call, void *user) {
    (void)user;
    return hlsnap_call_return(call, hlsnap_i32(fib(hlsnap_call_arg(call, 0).as.i32)));
}

static hlsnap_result guest_globals(hlsnap_call *call, void *user) {
    return hlsnap_call_return_fmt(call, "%d %d %s %s %s", counter, cleared, words[counter % 4], built ? "constructed" : changed,
                                  (const char *)user);
}

static hlsnap_result guest_bump(hlsnap_call *call, void *user) {
    (void)user;
    cleared = cleared + 1;
    counter = counter + 1;
    return hlsnap_call_return(call, hlsnap_i32(counter));
}

static hlsnap_result guest_tls(hlsnap_call *call, void *user) {
    (void)user;
    tls_counter = tls_counter + 1;
    tls_zero[99] = (char)(tls_zero[99] + 1);
    return hlsnap_call_return_fmt(call, "%d %d %d", tls_counter, tls_zero[0], tls_zero[99]);
}

static int op_add(int a, int b) { return a + b; }
static int op_sub(int a, int b) { return a - b; }
static int op_mul(int a, int b) { return a * b; }
static int (*const ops[])(int, int) = {op_add, op_sub, op_mul};

static hlsnap_result guest_table(hlsnap_call *call, void *user) {
    const int i = hlsnap_call_arg(call, 0).as.i32;
    (void)user;
    return hlsnap_call_return(call, hlsnap_i32(ops[i % 3](hlsnap_call_arg(call, 1).as.i32, hlsnap_call_arg(call, 2).as.i32)));
}

NOINLINE static int switched(int i) { /* dense enough for a jump table */
    switch (i) {
    case 0: return 17;
    case 1: return cleared + 4;
    case 2: return 99;
    case 3: return fib(7);
    case 4: return -1;
    case 5: return counter * 2;
    case 6: return 1000;
    case 7: return 'x';
    case 8: return fib(3) - 8;
    case 9: return 12345;
    default: return -2;
    }
}

static hlsnap_result guest_switch(hlsnap_call *call, void *user) {
    (void)user;
    return hlsnap_call_return(call, hlsnap_i32(switched(hlsnap_call_arg(call, 0).as.i32)));
}

typedef struct block { uint32_t words[300]; } block;
NOINLINE static block filled(uint32_t seed) {
    block b;
    size_t i;
    memset(&b, 0, sizeof(b));
    for (i = 0; i < 300; i += 3) b.words[i] = seed * (uint32_t)i;
    return b;
}
NOINLINE static uint64_t summed(block b) { /* by value: a call of memcpy in most builds */
    uint64_t sum = 0;
    size_t i;
    for (i = 0; i < 300; i++) sum += b.words[i];
    return sum;
}

static hlsnap_result guest_structs(hlsnap_call *call, void *user) {
    block a = filled(hlsnap_call_arg(call, 0).as.u32), b = a;
    (void)user;
    memmove(&b.words[1], &b.words[0], sizeof(b) - 4);
    return hlsnap_call_return(call, hlsnap_u64(summed(a) + (memcmp(&a, &b, sizeof(a)) != 0 ? 1 : 0) + b.words[1]));
}

static hlsnap_result guest_text(hlsnap_call *call, void *user) {
    const hlsnap_value in = hlsnap_call_arg(call, 0);
    char buffer[64], copy[64];
    const char *comma = strchr(in.str, ',');
    int n;
    (void)user;
    if (strlen(in.str) != in.size || in.size > 40) return hlsnap_call_fail(call, 1, "strlen");
    memcpy(copy, in.str, in.size + 1);
    n = snprintf(buffer, sizeof(buffer), "<%s|%d|%c|%05x|%s>", copy, (int)in.size, copy[0], 0xbeefu, comma ? comma + 1 : "-");
    if (n <= 0 || strcmp(copy, in.str) != 0 || strncmp(buffer, "<hello", 6) != 0) return hlsnap_call_fail(call, 2, "strings");
    return hlsnap_call_return(call, hlsnap_str(buffer));
}

static hlsnap_result guest_heap(hlsnap_call *call, void *user) { /* libc's names: the runtime's heap, unless libc is linked in */
    char *p = (char *)malloc(100), *q;
    (void)user;
    if (!p) return hlsnap_call_fail(call, 1, "malloc");
    strcpy(p, "kept");
    q = (char *)realloc(p, 50000);
    if (!q) return hlsnap_call_fail(call, 2, "realloc");
    p = (char *)calloc(10, 10);
    if (!p || p[99]) return hlsnap_call_fail(call, 3, "calloc");
    free(p);
    hlsnap_call_return(call, hlsnap_str(q));
    free(q);
    return HLSNAP_OK;
}

static hlsnap_result guest_rt_heap(hlsnap_call *call, void *user) {
    char *p = (char *)hlsnap_rt_malloc(1000);
    (void)user;
    if (!p) return hlsnap_call_fail(call, 1, "hlsnap_rt_malloc");
    hlsnap_rt_snprintf(p, 1000, "%.3f", 2.5);
    hlsnap_call_return(call, hlsnap_str(p));
    hlsnap_rt_free(p);
    return HLSNAP_OK;
}

NOINLINE static void scale(float *to, const float *from, float by, size_t n) { /* a vector loop from -O3 on */
    size_t i;
    for (i = 0; i < n; i++) to[i] = from[i] * by + 1.0f;
}
__attribute__((target("avx"))) NOINLINE static void scale_avx(float *to, const float *from, float by, size_t n) {
    size_t i;
    for (i = 0; i < n; i++) to[i] = from[i] * by + 1.0f;
}

static hlsnap_result guest_vector(hlsnap_call *call, void *user) {
    float a[259], b[259];
    double sum = 0;
    size_t i;
    (void)user;
    for (i = 0; i < 259; i++) a[i] = (float)i;
    scale(b, a, 2.0f, 259);
    if (hlsnap_call_arg(call, 0).as.b) scale_avx(a, b, 2.0f, 259);
    else scale(a, b, 2.0f, 259);
    for (i = 0; i < 259; i++) sum += (double)a[i];
    return hlsnap_call_return(call, hlsnap_f64(sum));
}

static hlsnap_result guest_host(hlsnap_call *call, void *user) {
    hlsnap_value args[2], out;
    hlsnap_error err;
    (void)user;
    args[0] = hlsnap_call_arg(call, 0);
    args[1] = hlsnap_str("from the guest");
    if (hlsnap_rt_call("ask", args, 2, &out, &err)) return hlsnap_call_fail(call, err.user_code, err.msg);
    return hlsnap_call_return_fmt(call, "host said: %s", out.str);
}

NOINLINE static void overrun(volatile char *p, size_t n) {
    size_t i;
    for (i = 0; i < n; i++) p[i] = 'A';
}
static hlsnap_result guest_smash(hlsnap_call *call, void *user) {
    char buffer[24];
    (void)user;
    overrun(buffer, hlsnap_call_arg(call, 0).size);
    return hlsnap_call_return(call, hlsnap_str(buffer[0] ? "came back" : "?"));
}

static volatile size_t overflow_size = 40;
static hlsnap_result guest_overflow(hlsnap_call *call, void *user) { /* _FORTIFY_SOURCE sees both sizes */
    char buffer[24];
    (void)user;
    memcpy(buffer, hlsnap_call_arg(call, 0).str, overflow_size);
    return hlsnap_call_return(call, hlsnap_i32(buffer[3]));
}

static int by_value(const void *a, const void *b) { return *(const int *)a - *(const int *)b; }
static hlsnap_result guest_sort(hlsnap_call *call, void *user) { /* not in the runtime */
    int v[6] = {5, 3, 9, 1, 8, 2};
    (void)user;
    qsort(v, 6, sizeof(v[0]), by_value);
    return hlsnap_call_return_fmt(call, "%d%d%d%d%d%d", v[0], v[1], v[2], v[3], v[4], v[5]);
}

static hlsnap_result guest_system_call(hlsnap_call *call, void *user) {
    long r;
    (void)user;
    __asm__ volatile("syscall" : "=a"(r) : "a"(39L) : "rcx", "r11", "memory");
    return hlsnap_call_return(call, hlsnap_i32((int32_t)r));
}
static hlsnap_result guest_getpid(hlsnap_call *call, void *user) {
    (void)user;
    return hlsnap_call_return(call, hlsnap_i32((int32_t)getpid()));
}
static hlsnap_result guest_abort(hlsnap_call *call, void *user) {
    (void)user;
    (void)call;
    abort();
}
static hlsnap_result guest_rt_abort(hlsnap_call *call, void *user) {
    (void)user;
    (void)call;
    hlsnap_rt_abort(42, "as asked");
}
static hlsnap_result guest_null(hlsnap_call *call, void *user) {
    (void)user;
    return hlsnap_call_return(call, hlsnap_i32(*(volatile int *)(uintptr_t)hlsnap_call_arg(call, 0).as.u64));
}

static const hlsnap_function exports[] = {
    {"fib", "i32(i32)", guest_fib, NULL}, {"globals", "str()", guest_globals, (void *)(uintptr_t)"user"},
    {"bump", "i32()", guest_bump, NULL}, {"tls", "str()", guest_tls, NULL}, {"table", "i32(i32,i32,i32)", guest_table, NULL},
    {"switch", "i32(i32)", guest_switch, NULL}, {"structs", "u64(u32)", guest_structs, NULL}, {"text", "str(str)", guest_text, NULL},
    {"heap", "str()", guest_heap, NULL}, {"rt_heap", "str()", guest_rt_heap, NULL}, {"vector", "f64(bool)", guest_vector, NULL},
    {"host", "str(i32)", guest_host, NULL}, {"smash", "str(str)", guest_smash, NULL}, {"overflow", "i32(str)", guest_overflow, NULL},
    {"sort", "str()", guest_sort, NULL}, {"system_call", "i32()", guest_system_call, NULL}, {"getpid", "i32()", guest_getpid, NULL},
    {"abort", "void()", guest_abort, NULL}, {"rt_abort", "void()", guest_rt_abort, NULL}, {"null", "i32(u64)", guest_null, NULL}};
static const hlsnap_function imports[] = {{"ask", "str(i32,str)", NULL, NULL}};
static const hlsnap_module module = {exports, HLSNAP_COUNT(exports), imports, HLSNAP_COUNT(imports)};

/* ---- host side ---- */

static int failures;
static hlsnap_error err;
static hlsnap_sandbox *sb;
static hlsnap_snapshot *clean;

static void check(bool ok, const char *what, const char *seen) {
    if (ok) return;
    printf("# %s: %s (%s)\n", what, seen ? seen : "?", err.msg);
    failures++;
}

static hlsnap_result call(const char *name, const hlsnap_value *args, size_t n, hlsnap_value *out) {
    memset(&err, 0, sizeof(err));
    return hlsnap_sandbox_call(sb, name, args, n, out, &err);
}

static void want_str(const char *name, const hlsnap_value *args, size_t n, const char *want) {
    hlsnap_value out = HLSNAP_ZERO;
    const hlsnap_result r = call(name, args, n, &out);
    check(r == HLSNAP_OK && out.str && strcmp(out.str, want) == 0, name, r ? hlsnap_result_name(r) : out.str);
}

static void want_i32(const char *name, const hlsnap_value *args, size_t n, int32_t want) {
    hlsnap_value out = HLSNAP_ZERO;
    char seen[80];
    const hlsnap_result r = call(name, args, n, &out);
    snprintf(seen, sizeof(seen), "%s %d, not %d", hlsnap_result_name(r), (int)out.as.i32, (int)want);
    check(r == HLSNAP_OK && out.as.i32 == want, name, seen);
}

/* The call ends with that code (and in that region, for a fault), the sandbox is poisoned, and a restore makes it good again. */
static void want_end(const char *name, const hlsnap_value *args, size_t n, hlsnap_result code, const char *region) {
    const hlsnap_result r = call(name, args, n, NULL);
    check(r == code && err.code == code, name, hlsnap_result_name(r));
    if (region) check(strcmp(err.region, region) == 0, name, err.region);
    check(hlsnap_sandbox_get_state(sb) == HLSNAP_POISONED, name, "not poisoned");
    check(hlsnap_sandbox_restore(sb, clean, &err) == HLSNAP_OK, name, "restore");
}

static hlsnap_result ask(hlsnap_call *in, void *user) {
    char text[80];
    if (hlsnap_call_arg(in, 0).as.i32 == 13) return hlsnap_call_fail(in, 13, "unlucky");
    snprintf(text, sizeof(text), "%d %s %d", (int)hlsnap_call_arg(in, 0).as.i32, hlsnap_call_arg(in, 1).str, *(int *)user);
    return hlsnap_call_return(in, hlsnap_str(text));
}
static int answer = 42;
static const hlsnap_function functions[] = {{"ask", "str(i32,str)", ask, &answer}};

static void start(hlsnap_guest_desc *guest, hlsnap_sandbox_desc *desc) {
    guest->self = &module;
    desc->hypervisor = hlsnap_kvm();
    desc->functions = functions;
    desc->num_functions = HLSNAP_COUNT(functions);
}

static void check_values(void) {
    hlsnap_value a[3], out = HLSNAP_ZERO;
    uint64_t sum = 0;
    uint32_t i;
    a[0] = hlsnap_i32(20);
    want_i32("fib", a, 1, 6765);
    want_str("globals", NULL, 0, "5 0 one initial user");
    want_str("tls", NULL, 0, "8 0 1");
    want_str("tls", NULL, 0, "9 0 2");
    a[0] = hlsnap_i32(1);
    a[1] = hlsnap_i32(50);
    a[2] = hlsnap_i32(8);
    want_i32("table", a, 3, 42);
    a[0] = hlsnap_i32(2);
    want_i32("table", a, 3, 400);
    a[0] = hlsnap_i32(3);
    want_i32("switch", a, 1, 13);
    a[0] = hlsnap_i32(5);
    want_i32("switch", a, 1, 10);
    a[0] = hlsnap_i32(9);
    want_i32("switch", a, 1, 12345);
    a[0] = hlsnap_i32(77);
    want_i32("switch", a, 1, -2);
    for (i = 0; i < 300; i += 3) sum += 7u * i;
    a[0] = hlsnap_u32(7);
    check(!call("structs", a, 1, &out) && out.as.u64 == sum + 1, "structs", "wrong sum");
    a[0] = hlsnap_str("hello, world");
    want_str("text", a, 1, "<hello, world|12|h|0beef| world>");
    want_str("rt_heap", NULL, 0, "2.500");
    a[0] = hlsnap_bool(__builtin_cpu_supports("avx") != 0);
    check(!call("vector", a, 1, &out) && out.as.f64 == 134421.0, "vector", "wrong sum");
    a[0] = hlsnap_i32(3);
    want_str("host", a, 1, "host said: 3 from the guest 42");
    a[0] = hlsnap_i32(13);
    check(call("host", a, 1, NULL) == HLSNAP_ERR_FUNCTION && err.user_code == 13, "failing host function", NULL);
}

static void check_snapshots(void) {
    hlsnap_sandbox_desc desc = HLSNAP_ZERO;
    hlsnap_guest_desc guest = HLSNAP_ZERO;
    hlsnap_snapshot *later = NULL;
    hlsnap_sandbox *first = sb;
    check(!hlsnap_sandbox_restore(sb, clean, &err), "restore", NULL);
    want_i32("bump", NULL, 0, 6);
    want_i32("bump", NULL, 0, 7);
    check(!hlsnap_sandbox_snapshot(sb, &later, &err), "snapshot", NULL);
    if (!later) return;
    want_i32("bump", NULL, 0, 8);
    want_str("tls", NULL, 0, "8 0 1");
    check(!hlsnap_sandbox_restore(sb, later, &err), "restore", NULL);
    want_str("globals", NULL, 0, "7 2 three initial user");
    want_str("tls", NULL, 0, "8 0 1");
    start(&guest, &desc);
    check(!hlsnap_sandbox_create_from(later, &desc, &sb, &err), "create_from", NULL);
    want_i32("bump", NULL, 0, 8);
    want_str("globals", NULL, 0, "8 3 zero initial user");
    hlsnap_sandbox_destroy(sb);
    sb = first;
    want_str("globals", NULL, 0, "7 2 three initial user");
    check(!hlsnap_sandbox_restore(sb, clean, &err), "restore", NULL);
    want_str("globals", NULL, 0, "5 0 one initial user");
    hlsnap_snapshot_release(later);
}

/* What the guest must not get away with; where libc is linked in, libc's own code runs up to its first system call. */
static void check_ends(bool libc_inside) {
    static const char long_text[] = "a text that is a good deal longer than any of the buffers that it is copied to, and then some";
    hlsnap_value a;
    a = hlsnap_str(long_text);
#if defined(__SSP__) || defined(__SSP_STRONG__) || defined(__SSP_ALL__)
    want_end("smash", &a, 1, libc_inside ? HLSNAP_ERR_FAULT : HLSNAP_ERR_ABORT, NULL);
#endif
#if defined(_FORTIFY_SOURCE) && _FORTIFY_SOURCE > 0 && defined(__OPTIMIZE__)
    want_end("overflow", &a, 1, libc_inside ? HLSNAP_ERR_FAULT : HLSNAP_ERR_ABORT, NULL);
#endif
    if (libc_inside) {
        want_str("sort", NULL, 0, "123589");
        want_end("heap", NULL, 0, HLSNAP_ERR_FAULT, NULL);
        want_end("getpid", NULL, 0, HLSNAP_ERR_FAULT, NULL);
        want_end("abort", NULL, 0, HLSNAP_ERR_FAULT, NULL);
    } else {
        want_str("heap", NULL, 0, "kept");
        want_end("sort", NULL, 0, HLSNAP_ERR_FAULT, "unresolved");
        want_end("getpid", NULL, 0, HLSNAP_ERR_FAULT, "unresolved");
        want_end("abort", NULL, 0, HLSNAP_ERR_ABORT, NULL);
    }
    want_end("system_call", NULL, 0, HLSNAP_ERR_FAULT, NULL);
    want_end("rt_abort", NULL, 0, HLSNAP_ERR_ABORT, NULL);
    a = hlsnap_u64(0);
    want_end("null", &a, 1, HLSNAP_ERR_FAULT, "null");
    a = hlsnap_u64((uint64_t)(uintptr_t)&answer);      /* the host's own address means nothing in there, or other bytes */
    if (call("null", &a, 1, NULL)) check(err.code == HLSNAP_ERR_FAULT, "host address", hlsnap_result_name(err.code));
    check(!hlsnap_sandbox_restore(sb, clean, &err), "restore", NULL);
    want_str("globals", NULL, 0, "5 0 one initial user");
}

/* Maps size bytes (0 = all) of this image's file at the highest free address below the image. */
static bool map_below(const char *file, size_t size, off_t offset, int rights, int flags) {
    const uintptr_t step = 0x10000;
    const int fd = open(file, O_RDONLY);
    struct stat st;
    uintptr_t at;
    void *p = MAP_FAILED;
    if (fd < 0 || fstat(fd, &st)) return false;
    if (!size) size = (size_t)st.st_size;
    for (at = ((uintptr_t)&module & ~(step - 1)) - step; p == MAP_FAILED && at >= step; at -= step)
        p = mmap((void *)at, size, rights, flags | 0x100000 /* MAP_FIXED_NOREPLACE */, fd, offset);
    return close(fd) == 0 && p != MAP_FAILED && (uintptr_t)p < (uintptr_t)&module;
}

/* The pages around an address as a copy without a file. */
static bool move_pages(uintptr_t address, size_t before, size_t after, int rights) {
    const uintptr_t at = (address & ~(uintptr_t)4095) - before * 4096;
    const size_t size = (before + 1 + after) * 4096;
    void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) return false;
    memcpy(p, (const void *)at, size);
    return !mprotect(p, size, rights) && syscall(SYS_mremap, p, size, size, 3 /* MAYMOVE, FIXED */, at) == (long)at;
}

/* 1: what the mode asks for is done; 0: another mode; -1: it could not be done. */
static int prepare(const char *file, const char *mode) {
    int r = 0;
    if (strcmp(mode, "map") == 0) r = map_below(file, 0, 0, PROT_READ, MAP_PRIVATE) ? 1 : -1;
    if (strcmp(mode, "page") == 0) r = map_below(file, 4096, 0, PROT_READ, MAP_PRIVATE) ? 1 : -1;
    if (strcmp(mode, "shared") == 0) r = map_below(file, 8192, 0, PROT_READ, MAP_SHARED) ? 1 : -1;
    if (strcmp(mode, "none") == 0) r = map_below(file, 0, 0, PROT_NONE, MAP_PRIVATE) ? 1 : -1;
    if (strcmp(mode, "middle") == 0) r = map_below(file, 4096, 4096, PROT_READ, MAP_PRIVATE) ? 1 : -1;
    if (strcmp(mode, "text") == 0) r = move_pages((uintptr_t)&fib, 0, 0, PROT_READ | PROT_EXEC) ? 1 : -1;
    if (strcmp(mode, "packed") == 0) r = move_pages((uintptr_t)&module, 0, 0, PROT_READ) ? 1 : -1;
    if (r < 0) printf("# %s: %s\n", mode, strerror(errno));
    return r;
}

/* The result, and the message if wanted, without a VM. */
static int load_only(bool message) {
    hlsnap_guest_desc guest = HLSNAP_ZERO;
    hlsnap_snapshot *s = NULL;
    hlsnap_result r;
    guest.self = &module;
    memset(&err, 0, sizeof(err));
    r = hlsnap_snapshot_from_guest(&guest, &s, &err);
    hlsnap_snapshot_release(s);
    return printf("%s%s%s\n", hlsnap_result_name(r), message ? " " : "", message ? err.msg : "") < 0;
}

static int run(int argc, char **argv) {
    hlsnap_guest_desc guest = HLSNAP_ZERO;
    hlsnap_sandbox_desc desc = HLSNAP_ZERO;
    hlsnap_result r;
    const int done = argc > 1 ? prepare(argv[0], argv[1]) : 0;
    if (done < 0) return 1;
    if (argc > 1 && strcmp(argv[1], "removed") == 0 && unlink(argv[0])) return 1;
    if (argc > 1 && strchr("mpr", argv[1][0]) && (!done || strcmp(argv[1], "packed") == 0)) return load_only(true);
    if (argc > 1 && strcmp(argv[1], "wait") == 0)
        return printf("ready\n") < 0 || fflush(stdout) || getchar() == EOF ? 1 : load_only(false);
    if (done) argc = 1;
    if (hlsnap_kvm_probe(&err)) return printf("# %s\n", err.msg) < 0 ? 1 : 77;
    counter = 99;
    cleared = 99;
    changed = "by the host";
    tls_counter = 99;
    start(&guest, &desc);
    r = hlsnap_sandbox_create(&guest, &desc, &sb, &err);
    if (argc > 1) return printf("%s\n", hlsnap_result_name(r)) < 0;
    check(!r && !hlsnap_sandbox_snapshot(sb, &clean, &err), "create", hlsnap_result_name(r));
    if (!clean) return 1;
    check_values();
    check_snapshots();
    check_ends(getauxval(7 /* AT_BASE */) == 0);
    check(counter == 99 && cleared == 99 && tls_counter == 99 && built == 1, "the guest changed the host", NULL);
    hlsnap_sandbox_destroy(sb);
    hlsnap_snapshot_release(clean);
    return failures != 0;
}

#ifdef SELF_SO
#ifdef __cplusplus
extern "C" {
#endif
/* For tests/self_host.c. The second one: a module that lies in another image than this implementation. */
__attribute__((visibility("default"))) int self_run(int argc, char **argv);
__attribute__((visibility("default"))) const char *self_other(const void *other);
int self_run(int argc, char **argv) { return run(argc, argv); }
const char *self_other(const void *other) {
    hlsnap_guest_desc guest = HLSNAP_ZERO;
    hlsnap_snapshot *s = NULL;
    hlsnap_result r;
    guest.self = (const hlsnap_module *)other;
    r = hlsnap_snapshot_from_guest(&guest, &s, &err);
    hlsnap_snapshot_release(s);
    return hlsnap_result_name(r);
}
#ifdef __cplusplus
}
#endif
#else
int main(int argc, char **argv) { return run(argc, argv); }
#endif

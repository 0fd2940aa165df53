/* test_cache.c - hlsnap_oci_cache and hlsnap_oci_resolve: what loads share and what they do not, tags that move under them, files
   that change, bounds, threads, forks, failing allocations. Failing system calls are in test_crash.c ("load twice by a cache"),
   what runs from shared layers in test_store.c (tenants).

   cc:  cc -std=gnu11 -I.. test_cache.c -o test_cache -lcjson
   run: ./test_cache [NAME]      works in a directory of its own under $TMPDIR or /tmp */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static long alloc_left = -1, alloc_live; /* allocations until one fails, -1 = none does; blocks in use */
static void *t_malloc(size_t n) {
    void *p = __atomic_load_n(&alloc_left, __ATOMIC_RELAXED) >= 0 && __atomic_fetch_sub(&alloc_left, 1, __ATOMIC_RELAXED) == 0
                  ? NULL : malloc(n);
    __atomic_add_fetch(&alloc_live, p != NULL, __ATOMIC_RELAXED);
    return p;
}
static void t_free(void *p) {
    __atomic_sub_fetch(&alloc_live, p != NULL, __ATOMIC_RELAXED);
    free(p);
}

static const char *counted;    /* the end of a path: */
static uint64_t bytes_read;    /* of such files, since then */
static bool (*at_read)(int fd); /* called before each read of such a file; false: it fails */
static bool is_file(int fd, const char *name) { /* whether an open file's path ends so */
    char link[64], path[400];
    const size_t n = strlen(name);
    ssize_t k;
    snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
    k = readlink(link, path, sizeof(path) - 1);
    path[k < 0 ? 0 : k] = 0;
    return k >= (ssize_t)n && strcmp(path + k - n, name) == 0;
}
static ssize_t t_pread(int fd, void *to, size_t n, off_t at) {
    ssize_t k;
    if (!counted || !is_file(fd, counted)) return pread(fd, to, n, at);
    if (at_read && !at_read(fd)) return errno = EIO, -1;
    k = pread(fd, to, n, at);
    if (k > 0) __atomic_add_fetch(&bytes_read, (uint64_t)k, __ATOMIC_RELAXED);
    return k;
}

static bool clones;            /* what the file system has of them; else memfds everywhere */
static long t_syscall(long number, ...) {
    long a[6], i;
    va_list ap;
    va_start(ap, number);
    for (i = 0; i < 6; i++) a[i] = va_arg(ap, long);
    va_end(ap);
    if (!clones && number == SYS_ioctl && a[1] == 0x40049409l /* FICLONE */) return errno = EOPNOTSUPP, -1;
    return syscall(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}

static int64_t later_s; /* the clock is that much ahead: files are older than they are */
static int t_clock_gettime(clockid_t clock, struct timespec *t) {
    const int r = clock_gettime(clock, t);
    if (clock == CLOCK_REALTIME) t->tv_sec += (time_t)later_s;
    return r;
}

static int no_lease, leases_before; /* errno of F_SETLEASE; how many are given before */
static int t_fcntl(int fd, int command, long arg) {
    if (no_lease && command == 1024 /* F_SETLEASE */ && arg != F_UNLCK && leases_before-- <= 0) return errno = no_lease, -1;
    return fcntl(fd, command, arg);
}

#define fcntl(fd, command, arg) t_fcntl(fd, command, (long)(arg))
#define pread(...) t_pread(__VA_ARGS__)
#define clock_gettime(c, t) t_clock_gettime(c, t)
#define syscall(...) t_syscall(__VA_ARGS__, 0L, 0L, 0L, 0L, 0L, 0L)
#define HLSNAP_MALLOC(n) t_malloc(n)
#define HLSNAP_FREE(p) t_free(p)
#define HLSNAP__OCI_MAX_PARSED_BYTES 6000u
#define HLSNAP_IMPLEMENTATION
#include "hlsnap.h"
#include "hlsnap_oci.h"
#undef fcntl
#undef pread
#undef clock_gettime
#undef syscall

#include "test.h"

#include "oci_make.h"

#include <dirent.h>
#include <sys/mman.h>
#include <sys/wait.h>

#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define TSAN 1
#endif
#endif
#ifndef TSAN
#define TSAN 0
#endif

#define TENANTS 8

static hlsnap_error err;

/* ---- helpers ---- */

static const char *fresh(void) {
    static char path[8][32];
    static int n;
    char *p = path[n % 8];
    snprintf(p, 32, "c%d", n++);
    CHECK_EQ(sh("rm -rf %s", p), 0);
    return p;
}

static void save(const char *dir, const char *tag, hlsnap_snapshot *s, hlsnap_oci_digest *digest) {
    hlsnap_oci_desc d = HLSNAP_ZERO;
    d.created = -1;
    if (!CHECK_EQ(hlsnap_oci_save(dir, tag, s, &d, digest, &err), HLSNAP_OK)) printf("# %s\n", err.msg);
}

static hlsnap_oci_cache *cache_new(uint64_t max_bytes) {
    hlsnap_oci_cache *c = NULL;
    CHECK_EQ(hlsnap_oci_cache_create(max_bytes, &c, &err), HLSNAP_OK);
    return c;
}

static hlsnap_oci_desc desc_of(hlsnap_oci_cache *c) {
    hlsnap_oci_desc d = HLSNAP_ZERO;
    d.cache = c;
    return d;
}

static hlsnap_snapshot *load_with(const char *dir, const char *ref, const hlsnap_oci_desc *d, hlsnap_result want) {
    hlsnap_snapshot *s = NULL;
    memset(&err, 0, sizeof(err));
    if (!CHECK_EQ(hlsnap_oci_load(dir, ref, d, &s, NULL, &err), want)) printf("# %s\n", err.msg);
    CHECK_EQ(err.code, want);
    CHECK_EQ(s != NULL, want == HLSNAP_OK);
    return s;
}

static hlsnap_snapshot *load(const char *dir, const char *ref, hlsnap_oci_cache *c) {
    const hlsnap_oci_desc d = desc_of(c);
    return load_with(dir, ref, &d, HLSNAP_OK);
}

static int count_fds(void) {
    DIR *d = opendir("/proc/self/fd");
    int n = 0;
    while (readdir(d)) n++;
    closedir(d);
    return n - 3;
}

/* Bytes of memory in memfds that the process holds, each counted once. */
static uint64_t memfd_bytes(void) {
    struct { uint64_t ino; } seen[400];
    DIR *d = opendir("/proc/self/fd");
    struct dirent *e;
    struct stat st;
    uint64_t sum = 0;
    size_t i, num = 0;
    while ((e = readdir(d))) {
        char path[300], to[100] = "";
        snprintf(path, sizeof(path), "/proc/self/fd/%.255s", e->d_name);
        if (readlink(path, to, sizeof(to) - 1) < 0 || !strstr(to, "memfd:hlsnap") || stat(path, &st) != 0) continue;
        for (i = 0; i < num && seen[i].ino != (uint64_t)st.st_ino;) i++;
        if (i < num) continue;
        if (CHECK(num < HLSNAP_COUNT(seen))) seen[num++].ino = (uint64_t)st.st_ino;
        sum += (uint64_t)st.st_blocks * 512;
    }
    closedir(d);
    return sum;
}

static uint64_t ino_of(const hlsnap_snapshot *s, uint32_t layer) { /* of the layer's memory */
    struct stat st;
    CHECK_EQ(fstat(s->layers[layer]->fd, &st), 0);
    return (uint64_t)st.st_ino;
}

/* Where a layer's blob is, and its name from here on. */
static const char *blob_of(const char *dir, const hlsnap_snapshot *s, uint32_t layer, char path[120]) {
    hlsnap__place *place = hlsnap__layer_place_get(s->layers[layer], 0);
    snprintf(path, 120, "%s/blobs/sha256/%s", dir, place ? place->memory + 7 : "none");
    hlsnap__place_release(place);
    return strrchr(path, '/') + 1;
}

static void count(const char *name) {
    counted = name;
    bytes_read = 0;
}

static void flip(const char *path, off_t at) {
    const int fd = open(path, O_RDWR);
    char c = 0;
    CHECK(pread(fd, &c, 1, at) == 1);
    c = (char)(c ^ 0x10);
    CHECK(pwrite(fd, &c, 1, at) == 1);
    close(fd);
}

/* A base and tenants over it, in a layout: t0 .. t7, and base. */
typedef struct tenants {
    const char *dir;
    hlsnap_snapshot *base, *of[TENANTS]; /* as they were saved */
    char path[120]; /* of the base's blob, and its name: */
    const char *name;
} tenants;

static tenants tenants_make(void) {
    static char path[120];
    tenants t;
    char tag[8];
    uint32_t i;
    t.dir = fresh();
    t.base = large(250, 1);
    save(t.dir, "base", t.base, NULL);
    for (i = 0; i < TENANTS; i++) {
        snprintf(tag, sizeof(tag), "t%u", i);
        t.of[i] = derive(t.base, 20 + 3 * i, 2, 100 + i);
        save(t.dir, tag, t.of[i], NULL);
    }
    t.name = blob_of(t.dir, t.base, 0, path);
    memcpy(t.path, path, sizeof(t.path));
    return t;
}

static void tenants_free(tenants *t) {
    uint32_t i;
    hlsnap_snapshot_release(t->base);
    for (i = 0; i < TENANTS; i++) hlsnap_snapshot_release(t->of[i]);
    counted = NULL;
    at_read = NULL;
    later_s = 0;
}

static hlsnap_snapshot *load_tenant(const tenants *t, uint32_t i, hlsnap_oci_cache *c) {
    char tag[8];
    hlsnap_snapshot *s;
    snprintf(tag, sizeof(tag), "t%u", i);
    s = load(t->dir, tag, c);
    if (s) CHECK_EQ(s->num_layers, 2);
    return s;
}

/* ---- what is shared ---- */

static void arguments(void) {
    hlsnap_oci_cache *c = NULL;
    hlsnap_oci_digest digest;
    CHECK_EQ(hlsnap_oci_cache_create(7, NULL, &err), HLSNAP_ERR_ARG);
    CHECK_EQ(err.code, HLSNAP_ERR_ARG);
    CHECK_EQ(hlsnap_oci_cache_create(7, NULL, NULL), HLSNAP_ERR_ARG);
    alloc_left = 0;
    CHECK_EQ(hlsnap_oci_cache_create(7, &c, &err), HLSNAP_ERR_MEMORY);
    alloc_left = -1;
    CHECK(!c);
    CHECK_EQ(hlsnap_oci_cache_create(UINT64_MAX, &c, NULL), HLSNAP_OK);
    hlsnap_oci_cache_destroy(c);
    hlsnap_oci_cache_destroy(NULL);
    CHECK_EQ(hlsnap_oci_resolve(NULL, "v1", &digest, &err), HLSNAP_ERR_ARG);
    CHECK_EQ(hlsnap_oci_resolve("x", NULL, &digest, &err), HLSNAP_ERR_ARG);
    CHECK_EQ(hlsnap_oci_resolve("x", "", &digest, &err), HLSNAP_ERR_ARG);
    CHECK_EQ(hlsnap_oci_resolve("x", "sha256:77", &digest, &err), HLSNAP_ERR_ARG);
    CHECK_EQ(hlsnap_oci_resolve("x", "v1", NULL, &err), HLSNAP_ERR_ARG);
    CHECK_EQ(hlsnap_oci_resolve("no-such", "v1", &digest, &err), HLSNAP_ERR_NOT_FOUND);
    CHECK_EQ(alloc_live, 0);
}

static void tenants_share_a_base(void) {
    tenants t = tenants_make();
    hlsnap_oci_cache *c = cache_new(UINT64_MAX);
    hlsnap_snapshot *s[TENANTS], *alone;
    const uint64_t before = memfd_bytes();
    uint64_t one;
    uint32_t i;
    alone = load_tenant(&t, 0, NULL);
    one = memfd_bytes() - before;
    CHECK(one >= 250 * P);
    hlsnap_snapshot_release(alone);
    count(t.name);
    for (i = 0; i < TENANTS; i++) {
        s[i] = load_tenant(&t, i, c);
        check_same(t.of[i], s[i]);
        CHECK(s[i]->layers[0] == s[0]->layers[0] && s[i]->layers[0]->sealed && !s[i]->layers[0]->watch);
        CHECK(i == 0 || s[i]->layers[1] != s[0]->layers[1]);
    }
    CHECK_EQ(bytes_read, 254 * P); /* hashed once, whole */
    CHECK(memfd_bytes() - before <= one + one / 10);
    for (i = 0; i < TENANTS; i++) hlsnap_snapshot_release(s[i]);
    s[0] = load(t.dir, "base", c); /* all of it was kept */
    check_same(t.base, s[0]);
    CHECK_EQ(bytes_read, 254 * P);
    hlsnap_oci_cache_destroy(c);
    check_same(t.base, s[0]);
    hlsnap_snapshot_release(s[0]);
    CHECK_EQ(memfd_bytes(), before);
    tenants_free(&t);
    CHECK_EQ(alloc_live, 0);
}

/* What each guard and way of verifying gives to a load behind it, and takes from one before it. */
static void guards(void) {
    static const struct { hlsnap_oci_guard guard; bool disable, later, gives, takes; } rows[] = {
        {HLSNAP_OCI_GUARD_PRIVATE, false, false, true, true}, {HLSNAP_OCI_GUARD_PRIVATE, false, true, true, true},
        {HLSNAP_OCI_GUARD_PRIVATE, true, false, false, true}, {HLSNAP_OCI_GUARD_PRIVATE, true, true, false, true},
        {HLSNAP_OCI_GUARD_NONE, false, false, false, false},  {HLSNAP_OCI_GUARD_NONE, true, false, false, false},
        {HLSNAP_OCI_GUARD_NONE, false, true, false, false},   {HLSNAP_OCI_GUARD_DETECT, false, false, false, false},
        {HLSNAP_OCI_GUARD_DETECT, false, true, false, false}, {HLSNAP_OCI_GUARD_DETECT, true, false, false, false},
        {HLSNAP_OCI_GUARD_LEASE, false, false, false, false}, {HLSNAP_OCI_GUARD_LEASE, false, true, false, false}};
    tenants t = tenants_make();
    size_t i;
    for (i = 0; i < HLSNAP_COUNT(rows); i++) {
        hlsnap_oci_cache *c = cache_new(UINT64_MAX);
        hlsnap_oci_desc d = desc_of(c);
        hlsnap_snapshot *first, *second;
        d.guard = rows[i].guard;
        d.disable_verify = rows[i].disable;
        d.verify_later = rows[i].later;
        first = load_with(t.dir, "t0", &d, HLSNAP_OK);
        if (!first) continue;
        check_same(t.of[0], first);
        CHECK_EQ(hlsnap__snapshot_check(first, true, &err), HLSNAP_OK); /* until verified */
        second = load_tenant(&t, 1, c);
        CHECK_EQ(ino_of(first, 0) == ino_of(second, 0), rows[i].gives);
        CHECK(!second->layers[0]->watch);
        hlsnap_snapshot_release(first);
        first = load_with(t.dir, "t2", &d, HLSNAP_OK);
        check_same(t.of[2], first);
        CHECK_EQ(first->layers[0] == second->layers[0], rows[i].takes);
        CHECK_EQ(hlsnap__snapshot_watched(first), (rows[i].later && !rows[i].disable) || rows[i].guard == HLSNAP_OCI_GUARD_DETECT ||
                                                      first->guard == HLSNAP_OCI_GUARD_LEASE);
        hlsnap_snapshot_release(first);
        hlsnap_snapshot_release(second);
        hlsnap_oci_cache_destroy(c);
        if (test_bad) printf("# guard %d, disable_verify %d, verify_later %d\n", (int)rows[i].guard, rows[i].disable, rows[i].later);
        if (test_bad) break;
    }
    tenants_free(&t);
    CHECK_EQ(alloc_live, 0);
}

/* Nothing is left to verify later: no thread, nothing to wait for. */
static void nothing_left_for_later(void) {
    tenants t = tenants_make();
    hlsnap_oci_cache *c = cache_new(UINT64_MAX);
    hlsnap_oci_desc d = desc_of(c);
    hlsnap_snapshot *s = load_tenant(&t, 0, c), *again;
    d.verify_later = true;
    again = load_with(t.dir, "t0", &d, HLSNAP_OK);
    CHECK(again->layers[0] == s->layers[0] && again->layers[1] == s->layers[1] && !hlsnap__snapshot_watched(again));
    hlsnap_snapshot_release(s);
    hlsnap_snapshot_release(again);
    hlsnap_oci_cache_destroy(c);
    tenants_free(&t);
    CHECK_EQ(alloc_live, 0);
}

static int32_t held, entered; /* readers wait; one does */
static pthread_t first_thread;
static bool hold(int fd) {
    (void)fd;
    __atomic_store_n(&entered, 1, __ATOMIC_RELEASE);
    while (__atomic_load_n(&held, __ATOMIC_ACQUIRE)) usleep(1000);
    return true;
}
static bool hold_others(int fd) { return pthread_equal(pthread_self(), first_thread) || hold(fd); }

/* A load of which nothing is verified before it returns, and later only once `held` is 0. */
static hlsnap_snapshot *load_later(const tenants *t, const char *dir, const char *ref, hlsnap_oci_cache *c) {
    hlsnap_oci_desc d = desc_of(c);
    d.verify_later = true;
    first_thread = pthread_self();
    held = 1;
    count(t->name);
    at_read = hold_others;
    return load_with(dir, ref, &d, HLSNAP_OK);
}
static hlsnap_result verified(const hlsnap_snapshot *s) {
    __atomic_store_n(&held, 0, __ATOMIC_RELEASE);
    return hlsnap__snapshot_check(s, true, &err);
}

/* What verify_later found to be wrong is nobody's. */
static void verified_later_and_wrong(void) {
    tenants t = tenants_make();
    hlsnap_oci_cache *c = cache_new(UINT64_MAX);
    const hlsnap_oci_desc d = desc_of(c);
    hlsnap_snapshot *s;
    flip(t.path, 100 * 4096);
    s = load_later(&t, t.dir, "t0", c);
    CHECK_EQ(verified(s), HLSNAP_ERR_DIGEST);
    load_with(t.dir, "t1", &d, HLSNAP_ERR_DIGEST);
    hlsnap_snapshot_release(s);
    flip(t.path, 100 * 4096);
    CHECK_EQ(c->num_kept, 0);
    s = load_tenant(&t, 1, c);
    check_same(t.of[1], s);
    hlsnap_snapshot_release(s);
    hlsnap_oci_cache_destroy(c);
    tenants_free(&t);
    CHECK_EQ(alloc_live, 0);
}

/* A snapshot of n pages of the heap, from the given one on, and its text, over a layer of `large`. */
static hlsnap_snapshot *part_of(hlsnap_snapshot *base, uint32_t first, uint32_t n) {
    hlsnap__extent e[2] = {{0, 4, 0, 0}, {0, 0, 0, 0}};
    e[1].page = 16 + first;
    e[1].pages = n;
    e[1].layer_page = 4 + first;
    hlsnap__retain(&base->guest->refs);
    hlsnap__retain(&base->layers[0]->refs);
    return snapshot_over(base->guest, base->layers[0], NULL, e, 2);
}

/* Snapshots that show little of a layer, in any order with those that show much: everybody finds what is his. */
static void parts_of_a_layer(void) {
    const char *dir = fresh(), *name;
    hlsnap_snapshot *base = large(250, 1), *s[4], *t[4];
    hlsnap_oci_cache *c;
    char path[120];
    uint32_t order, i;
    save(dir, "s3", base, NULL);
    name = blob_of(dir, base, 0, path);
    for (i = 0; i < 3; i++) { /* 24 pages of it, others, some of both */
        s[i] = part_of(base, 14 + 10 * i, 20);
        save(dir, i == 0 ? "s0" : i == 1 ? "s1" : "s2", s[i], NULL);
    }
    s[3] = base;
    for (order = 0; order < 24 && !test_bad; order++) {
        uint32_t left[4] = {0, 1, 2, 3}, n = order;
        bool whole = false;
        char tag[8];
        c = cache_new(UINT64_MAX);
        count(name);
        for (i = 0; i < 4; i++) {
            const uint32_t k = n % (4 - i), which = left[k];
            n /= 4 - i;
            memmove(left + k, left + k + 1, (3 - k) * sizeof(left[0]));
            snprintf(tag, sizeof(tag), "s%u", which);
            bytes_read = 0;
            t[which] = load(dir, tag, c);
            check_same(s[which], t[which]);
            CHECK(whole ? bytes_read == 0 : bytes_read > 0);
            whole = whole || which == 3;
        }
        for (i = 0; i < 4; i++) { /* all of it again, from what there is by now */
            hlsnap_snapshot *u;
            snprintf(tag, sizeof(tag), "s%u", i);
            bytes_read = 0;
            u = load(dir, tag, c);
            check_same(s[i], u);
            CHECK_EQ(bytes_read, 0);
            hlsnap_snapshot_release(u);
            hlsnap_snapshot_release(t[i]);
        }
        hlsnap_oci_cache_destroy(c);
    }
    counted = NULL;
    for (i = 0; i < 4; i++) hlsnap_snapshot_release(s[i]);
    CHECK_EQ(alloc_live, 0);
}

/* A snapshot over shared layers is saved as any other: only what is new, and found by others. */
static void saved_again(void) {
    tenants t = tenants_make();
    hlsnap_oci_cache *c = cache_new(UINT64_MAX);
    const char *other = fresh();
    hlsnap_snapshot *s = load_tenant(&t, 0, c), *u = load_tenant(&t, 1, c), *next = derive(u, 100, 3, 9), *v;
    hlsnap_oci_info info;
    save(t.dir, "next", next, NULL);
    CHECK_EQ(hlsnap_oci_get_info(t.dir, "next", &info, &err), HLSNAP_OK);
    CHECK_EQ(info.layers, 3);
    v = load(t.dir, "next", c);
    check_same(next, v);
    CHECK(v->layers[0] == s->layers[0] && v->layers[1] == u->layers[1]);
    hlsnap_snapshot_release(v);
    save(other, "next", next, NULL);
    save(t.dir, "t0again", s, NULL);
    CHECK_EQ(hlsnap_oci_get_info(t.dir, "t0again", &info, &err), HLSNAP_OK);
    CHECK_EQ(info.layers, 2);
    v = load(other, "next", c);
    check_same(next, v);
    hlsnap_snapshot_release(v);
    CHECK_EQ(hlsnap_oci_fsck(t.dir, false, &err), HLSNAP_OK);
    CHECK_EQ(hlsnap_oci_fsck(other, false, &err), HLSNAP_OK);
    hlsnap_snapshot_release(next);
    hlsnap_snapshot_release(s);
    hlsnap_snapshot_release(u);
    hlsnap_oci_cache_destroy(c);
    tenants_free(&t);
    CHECK_EQ(alloc_live, 0);
}

/* Where a layer is a clone of its blob instead of a memfd. */
static void clones_are_shared(void) {
    tenants t = tenants_make();
    hlsnap_oci_cache *c = cache_new(UINT64_MAX);
    hlsnap_snapshot *s, *u;
    clones = true;
    s = load_later(&t, t.dir, "t0", c);
    if (s->layers[0]->sealed) test_why = "no clones on this file system";
    CHECK_EQ(verified(s), HLSNAP_OK);
    u = load_tenant(&t, 1, c);
    CHECK_EQ(ino_of(u, 0), ino_of(s, 0));
    flip(t.path, 104 * 4096);
    check_same(t.of[0], s);
    check_same(t.of[1], u);
    { const hlsnap_oci_desc d = desc_of(c);
      load_with(t.dir, "t2", &d, HLSNAP_ERR_DIGEST); }
    flip(t.path, 104 * 4096);
    hlsnap_snapshot_release(s);
    s = load_tenant(&t, 2, c);
    CHECK(u->layers[0] == s->layers[0]);
    hlsnap_snapshot_release(s);
    hlsnap_snapshot_release(u);
    hlsnap_oci_cache_destroy(c);
    clones = false;
    tenants_free(&t);
    CHECK_EQ(alloc_live, 0);
}

/* ---- files that change, other layouts ---- */

/* A damaged blob is found by each load that finds it without a cache, and repaired it is shared again. */
static void changed_on_disk(void) {
    tenants t = tenants_make();
    hlsnap_oci_cache *c = cache_new(UINT64_MAX);
    hlsnap_oci_desc d = desc_of(c);
    hlsnap_snapshot *s = load_tenant(&t, 0, c), *u;
    uint8_t page[P], was[P];
    char hidden[140];
    count(t.name);
    flip(t.path, 104 * 4096);
    load_with(t.dir, "t1", &d, HLSNAP_ERR_DIGEST);
    load_with(t.dir, "t0", &d, HLSNAP_ERR_DIGEST);
    d.disable_verify = true; /* what is there, as it is */
    u = load_with(t.dir, "t1", &d, HLSNAP_OK);
    CHECK(u->layers[0] != s->layers[0]);
    page_of(u, 116, page);
    page_of(t.of[1], 116, was);
    CHECK_EQ(page[0], was[0] ^ 0x10);
    hlsnap_snapshot_release(u);
    d.disable_verify = false;
    u = load_later(&t, t.dir, "t1", c);
    CHECK_EQ(verified(u), HLSNAP_ERR_DIGEST);
    hlsnap_snapshot_release(u);
    d.guard = HLSNAP_OCI_GUARD_NONE;
    load_with(t.dir, "t1", &d, HLSNAP_ERR_DIGEST);
    d.guard = HLSNAP_OCI_GUARD_PRIVATE;
    flip(t.path, 104 * 4096);
    bytes_read = 0;
    u = load_tenant(&t, 1, c); /* read again, and found to be the same */
    CHECK(u->layers[0] == s->layers[0]);
    CHECK_EQ(bytes_read, 254 * P);
    hlsnap_snapshot_release(u);
    u = load_tenant(&t, 2, c);
    CHECK_EQ(bytes_read, 254 * P);
    hlsnap_snapshot_release(u);
    CHECK_EQ(truncate(t.path, 250 * 4096), 0);
    load_with(t.dir, "t1", &d, HLSNAP_ERR_SIZE);
    snprintf(hidden, sizeof(hidden), "%s.hidden", t.path);
    CHECK_EQ(rename(t.path, hidden), 0);
    load_with(t.dir, "t1", &d, HLSNAP_ERR_FILE);
    CHECK_EQ(symlink("/dev/zero", t.path), 0);
    load_with(t.dir, "t1", &d, HLSNAP_ERR_FILE);
    CHECK(unlink(t.path) == 0 && unlink(hidden) == 0);
    save(t.dir, "base", t.base, NULL); /* written anew: another file */
    CHECK_EQ(hlsnap_oci_fsck(t.dir, false, &err), HLSNAP_OK);
    bytes_read = 0;
    u = load_tenant(&t, 1, c);
    CHECK(u->layers[0] == s->layers[0]);
    CHECK_EQ(bytes_read, 254 * P);
    check_same(t.of[1], u);
    hlsnap_snapshot_release(u);
    hlsnap_snapshot_release(s);
    hlsnap_oci_cache_destroy(c);
    tenants_free(&t);
    CHECK_EQ(alloc_live, 0);
}

/* A chunk list, manifest or config that changed is found, however much of the rest is known. */
static void other_blobs_change(void) {
    tenants t = tenants_make();
    hlsnap_oci_cache *c = cache_new(UINT64_MAX);
    const hlsnap_oci_desc d = desc_of(c);
    hlsnap_snapshot *s = load_tenant(&t, 0, c);
    hlsnap__place *place = hlsnap__layer_place_get(s->layers[0], 0);
    hlsnap_oci_digest digest;
    char path[120];
    CHECK_EQ(hlsnap_oci_resolve(t.dir, "t0", &digest, &err), HLSNAP_OK);
    snprintf(path, sizeof(path), "%s/blobs/sha256/%s", t.dir, digest.text + 7);
    flip(path, 60);
    load_with(t.dir, "t0", &d, HLSNAP_ERR_DIGEST);
    flip(path, 60);
    CHECK_EQ(sh("cd %s/blobs/sha256 && mv %s ../list", t.dir, place->chunks + 7), 0);
    load_with(t.dir, "t0", &d, HLSNAP_ERR_FILE);
    CHECK_EQ(sh("cd %s/blobs/sha256 && mv ../list %s", t.dir, place->chunks + 7), 0);
    CHECK_EQ(sh("rm %s/oci-layout", t.dir), 0);
    load_with(t.dir, "t0", &d, HLSNAP_ERR_FILE);
    hlsnap__place_release(place);
    hlsnap_snapshot_release(s);
    hlsnap_oci_cache_destroy(c);
    tenants_free(&t);
    CHECK_EQ(alloc_live, 0);
}

/* A byte of any file flips, or all of it goes; whatever was loaded before, a load ends as it does without a cache. */
static void as_without_a_cache(void) {
    tenants t = tenants_make();
    hlsnap_oci_cache *c = cache_new(200 * P); /* not all of it */
    char files[64][100], path[140];
    uint64_t seed = 7;
    int num = 0, i, failed = 0;
    FILE *list;
    CHECK_EQ(sh("cd %s && find . -type f ! -name .hlsnap.lock > ../files", t.dir), 0);
    list = fopen("files", "r");
    while (list && num < 64 && fscanf(list, "%99s", files[num]) == 1) num++;
    if (list) fclose(list);
    CHECK(num > TENANTS * 4);
    later_s = 100;
    for (i = 0; i < 400 && !test_bad; i++) {
        const uint32_t who = (uint32_t)lcg(&seed) % TENANTS, way = (uint32_t)lcg(&seed) % 8;
        hlsnap_oci_desc d = HLSNAP_ZERO;
        hlsnap_snapshot *s = NULL, *u = NULL;
        hlsnap_result r, with;
        struct stat st;
        off_t at;
        char tag[8];
        snprintf(tag, sizeof(tag), "t%u", who);
        snprintf(path, sizeof(path), "%.20s/%.99s", t.dir, files[lcg(&seed) % (uint64_t)num]);
        if (lcg(&seed) % 4 == 0) snprintf(path, sizeof(path), "%s", t.path);
        CHECK_EQ(stat(path, &st), 0);
        at = (off_t)(lcg(&seed) % (uint64_t)st.st_size);
        if (way == 0) CHECK_EQ(sh("mv %s %s/hidden", path, t.dir), 0);
        else if (way < 6) flip(path, at);
        d.disable_verify = lcg(&seed) % 4 == 0;
        d.threads = lcg(&seed) % 2 ? 3 : 0;
        r = hlsnap_oci_load(t.dir, tag, &d, &s, NULL, &err);
        d.cache = c;
        with = hlsnap_oci_load(t.dir, tag, &d, &u, NULL, &err);
        if (!CHECK(with == r || (!r && with == HLSNAP_ERR_DIGEST && strcmp(path, t.path) == 0))) /* a page that it does not show */
            printf("# %s at %lld, way %u: %s, with a cache %s, %s\n", path, (long long)at, way, hlsnap_result_name(r), hlsnap_result_name(with),
                   err.msg);
        if (!r && !with) check_same(s, u);
        failed += with != HLSNAP_OK;
        hlsnap_snapshot_release(s);
        hlsnap_snapshot_release(u);
        if (way == 0) CHECK_EQ(sh("mv %s/hidden %s", t.dir, path), 0);
        else if (way < 6) flip(path, at);
    }
    printf("# %d of %d failed\n", failed, i);
    CHECK(failed > 20);
    hlsnap_oci_cache_destroy(c);
    tenants_free(&t);
    CHECK_EQ(alloc_live, 0);
}

/* Another layout with the same content shares its memory, once it was found to have that content: to know digests is not to have
   what they are digests of. */
static void other_layouts(void) {
    tenants t = tenants_make();
    const char *other = fresh(), *thief = fresh();
    hlsnap_oci_cache *c = cache_new(UINT64_MAX);
    hlsnap_oci_desc d = desc_of(c);
    hlsnap_snapshot *s = load_tenant(&t, 0, c), *u;
    const uint64_t before = memfd_bytes();
    int i;
    CHECK_EQ(sh("cp -r %s %s && cp -r %s %s && truncate -s 0 %s/blobs/sha256/%s && truncate -s %llu %s/blobs/sha256/%s", t.dir, other,
                t.dir, thief, thief, t.name, 254ull * P, thief, t.name), 0);
    count(t.name);
    load_with(thief, "t0", &d, HLSNAP_ERR_DIGEST);
    for (i = 0; i < 2; i++) { /* of the thief's own zeros whatever he likes */
        uint8_t page[P];
        d.disable_verify = i == 0;
        u = i ? load_later(&t, thief, "t0", c) : load_with(thief, "t0", &d, HLSNAP_OK);
        CHECK(u->layers[0] != s->layers[0]);
        CHECK_EQ(hlsnap__oci_read_pages(u, 30, 1, page, NULL), HLSNAP_OK);
        CHECK_EQ(hlsnap__all_zero(page, P), true);
        CHECK_EQ(verified(u), i ? HLSNAP_ERR_DIGEST : HLSNAP_OK);
        hlsnap_snapshot_release(u);
    }
    d.disable_verify = false;
    load_with(thief, "t0", &d, HLSNAP_ERR_DIGEST); /* these loads taught nobody anything */
    for (i = 0; i < 3; i++) {
        bytes_read = 0;
        u = load(other, i == 1 ? "t1" : "t0", c);
        CHECK(u->layers[0] == s->layers[0]);
        CHECK_EQ(bytes_read, i ? 0 : 254 * P);
        check_same(t.of[i == 1], u);
        hlsnap_snapshot_release(u);
    }
    CHECK(memfd_bytes() - before <= 2 * 2 * P); /* t1's delta is kept, too */
    hlsnap_snapshot_release(s);
    hlsnap_oci_cache_destroy(c);
    tenants_free(&t);
    CHECK_EQ(alloc_live, 0);
}

/* Who has a part has that part, and not the rest. */
static void part_of_another_layout(void) {
    hlsnap_snapshot *base = large(250, 1), *part = part_of(base, 14, 20), *s, *u;
    const char *dir = fresh(), *thief = fresh(), *name;
    hlsnap_oci_cache *c = cache_new(UINT64_MAX);
    const hlsnap_oci_desc d = desc_of(c);
    char path[120];
    int i;
    save(dir, "base", base, NULL);
    save(dir, "part", part, NULL);
    name = blob_of(dir, base, 0, path);
    s = load(dir, "base", c);
    CHECK_EQ(sh("cp -r %s %s && truncate -s %d %s/blobs/sha256/%s && truncate -s %llu %s/blobs/sha256/%s", dir, thief, 4 * 65536, thief, name,
                254ull * P, thief, name), 0);
    count(name);
    for (i = 0; i < 2; i++) {
        bytes_read = 0;
        u = load(thief, "part", c);
        check_same(part, u);
        CHECK(u->layers[0] == s->layers[0]);
        CHECK_EQ(bytes_read, 3 * 65536); /* each time */
        hlsnap_snapshot_release(u);
        load_with(thief, "base", &d, HLSNAP_ERR_DIGEST);
    }
    counted = NULL;
    hlsnap_snapshot_release(s);
    hlsnap_oci_cache_destroy(c);
    hlsnap_snapshot_release(part);
    hlsnap_snapshot_release(base);
    CHECK_EQ(alloc_live, 0);
}

/* A layer of that name, with another chunk list: who wrote that gets his own bytes, and nobody else does. */
static void same_name_other_content(void) {
    hlsnap_snapshot *good = large(100, 1), *evil = large(100, 2), *s, *u;
    const char *dir = fresh(), *bad = fresh();
    hlsnap_oci_cache *c = cache_new(UINT64_MAX);
    hlsnap__place *is, *as;
    hlsnap_oci_digest d;
    save(dir, "v1", good, NULL);
    save(bad, "v1", evil, &d);
    is = hlsnap__layer_place_get(evil->layers[0], 0);
    as = hlsnap__layer_place_get(good->layers[0], 0);
    CHECK_EQ(sh("cd %s && mv blobs/sha256/%s blobs/sha256/%s && sed 's|%s|%s|' blobs/sha256/%s > m && d=$(sha256sum < m | cut -d' ' -f1) && "
                "mv m blobs/sha256/$d && sed -i \"s|%s|sha256:$d|\" index.json",
                bad, is->memory + 7, as->memory + 7, is->memory, as->memory, d.text + 7, d.text), 0);
    u = load(bad, "v1", c);
    s = load(dir, "v1", c);
    check_same(evil, u);
    check_same(good, s);
    CHECK(u->layers[0] != s->layers[0]);
    hlsnap_snapshot_release(s);
    hlsnap_snapshot_release(u);
    s = load(dir, "v1", c);
    u = load(bad, "v1", c);
    check_same(good, s);
    check_same(evil, u);
    hlsnap_snapshot_release(s);
    hlsnap_snapshot_release(u);
    hlsnap__place_release(is);
    hlsnap__place_release(as);
    hlsnap_oci_cache_destroy(c);
    hlsnap_snapshot_release(good);
    hlsnap_snapshot_release(evil);
    CHECK_EQ(alloc_live, 0);
}

/* ---- tags ---- */

static void resolves(void) {
    hlsnap_snapshot *s = large(20, 1);
    const char *dir = fresh();
    hlsnap_oci_digest a, b, found;
    char ref[80];
    save(dir, "v1", s, &a);
    CHECK_EQ(hlsnap_oci_resolve(dir, "v1", &found, &err), HLSNAP_OK);
    CHECK_STR(found.text, a.text);
    CHECK_EQ(hlsnap_oci_resolve(dir, a.text, &found, NULL), HLSNAP_OK);
    CHECK_STR(found.text, a.text);
    hlsnap_snapshot_release(s);
    s = large(21, 2);
    save(dir, "v1", s, &b);
    CHECK_EQ(hlsnap_oci_resolve(dir, "v1", &found, &err), HLSNAP_OK);
    CHECK_STR(found.text, b.text);
    CHECK_EQ(hlsnap_oci_resolve(dir, a.text, &found, &err), HLSNAP_OK); /* it is still listed */
    CHECK_EQ(hlsnap_oci_untag(dir, "v1", &err), HLSNAP_OK);
    CHECK_EQ(hlsnap_oci_resolve(dir, "v1", &found, &err), HLSNAP_ERR_NOT_FOUND);
    CHECK(strstr(err.msg, "v1") && strstr(err.msg, "hlsnap_oci_resolve"));
    snprintf(ref, sizeof(ref), "sha256:%064d", 7);
    CHECK_EQ(hlsnap_oci_resolve(dir, ref, &found, &err), HLSNAP_ERR_NOT_FOUND);
    CHECK_EQ(sh("printf '{\"schemaVersion\":2,\"manifests\":[{\"mediaType\":\"a/b\",\"digest\":\"%s\",\"size\":7,\"annotations\":"
                "{\"org.opencontainers.image.ref.name\":\"x\"}},{\"mediaType\":\"a/b\",\"digest\":\"%s\",\"size\":7,\"annotations\":"
                "{\"org.opencontainers.image.ref.name\":\"y\"}},{\"mediaType\":\"a/b\",\"digest\":\"%s\",\"size\":7,\"annotations\":"
                "{\"org.opencontainers.image.ref.name\":\"y\"}}]}' > %s/index.json", a.text, a.text, b.text, dir), 0);
    CHECK_EQ(hlsnap_oci_resolve(dir, "x", &found, &err), HLSNAP_ERR_MEDIA_TYPE);
    CHECK_EQ(hlsnap_oci_resolve(dir, "y", &found, &err), HLSNAP_ERR_AMBIGUOUS);
    CHECK_EQ(sh("printf '{]' > %s/index.json", dir), 0);
    CHECK_EQ(hlsnap_oci_resolve(dir, "x", &found, &err), HLSNAP_ERR_JSON);
    CHECK_EQ(sh("rm %s/index.json", dir), 0);
    CHECK_EQ(hlsnap_oci_resolve(dir, "x", &found, &err), HLSNAP_ERR_FILE);
    hlsnap_snapshot_release(s);
    CHECK_EQ(alloc_live, 0);
}

/* An index that has not changed for long is parsed once; one that may just be changing, by each load. */
static void indexes_are_parsed_once(void) {
    tenants t = tenants_make();
    hlsnap_oci_cache *c = cache_new(UINT64_MAX);
    hlsnap_oci_desc d = desc_of(c);
    hlsnap_oci_guard guard;
    hlsnap_snapshot *s;
    uint64_t one;
    count("index.json");
    hlsnap_snapshot_release(load_tenant(&t, 0, c));
    one = bytes_read;
    CHECK(one > 0);
    hlsnap_snapshot_release(load_tenant(&t, 1, c));
    CHECK_EQ(bytes_read, 2 * one); /* too young */
    later_s = 100;
    hlsnap_snapshot_release(load_tenant(&t, 2, c));
    CHECK_EQ(bytes_read, 3 * one);
    for (guard = HLSNAP_OCI_GUARD_DEFAULT; guard <= HLSNAP_OCI_GUARD_PRIVATE; guard = (hlsnap_oci_guard)(guard + 1)) {
        d.guard = guard;
        hlsnap_snapshot_release(load_with(t.dir, "t3", &d, HLSNAP_OK));
        load_with(t.dir, "nothing", &d, HLSNAP_ERR_NOT_FOUND);
    }
    CHECK_EQ(bytes_read, 3 * one);
    hlsnap_snapshot_release(load(t.dir, "t4", NULL)); /* without the cache as ever */
    CHECK_EQ(bytes_read, 4 * one);
    CHECK_EQ(hlsnap_oci_tag(t.dir, "t1", "t0", &err), HLSNAP_OK);
    later_s = 0;
    bytes_read = 0;
    s = load(t.dir, "t0", c);
    check_same(t.of[1], s);
    CHECK(bytes_read > 0);
    CHECK_EQ(hlsnap_oci_untag(t.dir, "t0", &err), HLSNAP_OK);
    d.guard = HLSNAP_OCI_GUARD_PRIVATE;
    load_with(t.dir, "t0", &d, HLSNAP_ERR_NOT_FOUND);
    later_s = 100;
    load_with(t.dir, "t0", &d, HLSNAP_ERR_NOT_FOUND);
    load_with(t.dir, "t0", &d, HLSNAP_ERR_NOT_FOUND);
    CHECK_EQ(c->num_parsed, 1); /* of the layout's indexes only the last one */
    CHECK_EQ(sh("mv %s/oci-layout %s/away", t.dir, t.dir), 0);
    load_with(t.dir, "t1", &d, HLSNAP_ERR_FILE);
    CHECK_EQ(sh("mv %s/away %s/oci-layout", t.dir, t.dir), 0);
    CHECK_EQ(sh("mv %s/index.json %s/away", t.dir, t.dir), 0);
    load_with(t.dir, "t1", &d, HLSNAP_ERR_FILE);
    CHECK_EQ(sh("rm -r %s && mkdir %s", t.dir, t.dir), 0);
    load_with(t.dir, "t1", &d, HLSNAP_ERR_NOT_FOUND);
    hlsnap_snapshot_release(s);
    hlsnap_oci_cache_destroy(c);
    tenants_free(&t);
    CHECK_EQ(alloc_live, 0);
}

/* A clock that is behind, or a file from the future: nothing is known to have settled. */
static void clocks_that_lie(void) {
    tenants t = tenants_make();
    hlsnap_oci_cache *c = cache_new(UINT64_MAX);
    static const int64_t ahead[] = {-1000000, -10, 0, 1};
    size_t i;
    count("index.json");
    for (i = 0; i < HLSNAP_COUNT(ahead); i++) {
        later_s = ahead[i];
        CHECK_EQ(sh("chmod 0600 %s/index.json", t.dir), 0); /* of now */
        hlsnap_snapshot_release(load_tenant(&t, 0, c));
        CHECK_EQ(c->num_parsed, 0);
    }
    CHECK_EQ(sh("touch -d 1990-01-01 %s/index.json", t.dir), 0); /* its ctime is of now all the same */
    later_s = 0;
    hlsnap_snapshot_release(load_tenant(&t, 0, c));
    CHECK_EQ(c->num_parsed, 0);
    later_s = 1000;
    hlsnap_snapshot_release(load_tenant(&t, 0, c));
    CHECK_EQ(c->num_parsed, 1);
    hlsnap_oci_cache_destroy(c);
    tenants_free(&t);
    CHECK_EQ(alloc_live, 0);
}

/* What mtime says is anybody's: ctime decides, and then a change shows whatever it said. */
static void any_mtime(void) {
    static const char *const dates[] = {"1970-01-01 00:00:00 UTC", "1901-12-14 UTC", "1960-05-05 UTC", "2100-01-01 UTC", "2400-01-01 UTC"};
    tenants t = tenants_make();
    hlsnap_oci_cache *c = cache_new(UINT64_MAX);
    hlsnap_snapshot *s;
    size_t i;
    count("index.json");
    for (i = 0; i < HLSNAP_COUNT(dates); i++) {
        CHECK_EQ(sh("touch -d '%s' %s/index.json", dates[i], t.dir), 0);
        later_s = 0;
        s = load_tenant(&t, 0, c);
        CHECK_EQ(c->num_parsed, i != 0); /* just changed; the one of before stays until another one comes */
        hlsnap_snapshot_release(s);
        later_s = 1000;
        hlsnap_snapshot_release(load_tenant(&t, 0, c));
        CHECK_EQ(c->num_parsed, 1);
        count("index.json");
        hlsnap_snapshot_release(load_tenant(&t, 0, c));
        CHECK_EQ(bytes_read, 0);
        save(t.dir, "t0", t.of[1 + i], NULL);
        s = load_tenant(&t, 0, c);
        check_same(t.of[1 + i], s);
        hlsnap_snapshot_release(s);
        if (test_bad) printf("# %s\n", dates[i]);
    }
    hlsnap_oci_cache_destroy(c);
    tenants_free(&t);
    CHECK_EQ(alloc_live, 0);
}

static void any_times(void) { /* of a file system that may say anything */
    static const struct { int64_t mtime, ctime; bool settled; } rows[] = {
        {0, 0, true}, {-1, -1, true}, {INT64_MIN, INT64_MIN, true}, {INT64_MAX, 0, true}, {INT64_MAX, INT64_MAX, false}, {0, INT64_MAX, false},
        {INT64_MIN, INT64_MAX, false}, {1000000, 0, true}};
    const int64_t now = (int64_t)time(NULL);
    hlsnap__oci_state f;
    struct stat st;
    size_t i;
    memset(&f, 0, sizeof(f));
    memset(&st, 0, sizeof(st));
    for (i = 0; i < HLSNAP_COUNT(rows); i++) {
        f.mtime_s = rows[i].mtime;
        f.ctime_s = rows[i].ctime;
        CHECK_EQ(hlsnap__oci_settled(&f), rows[i].settled);
        st.st_ctim.tv_sec = (time_t)rows[i].ctime;
        CHECK_EQ(hlsnap__oci_young(&st), rows[i].ctime == INT64_MAX);
    }
    f.ctime_s = 0;
    for (f.mtime_s = now - 2; f.mtime_s < now + 5000; f.mtime_s += 100) CHECK(!hlsnap__oci_settled(&f)); /* clocks that differ */
    f.mtime_s = 0;
    for (f.ctime_s = now - 2; f.ctime_s < now + 1000000; f.ctime_s += 10000) CHECK(!hlsnap__oci_settled(&f));
    f.ctime_s = now - 4;
    CHECK(hlsnap__oci_settled(&f));
}

/* The system gives no lease, or gives one and not the other: PRIVATE, which shares, and no lease is left. */
static void leases_refused(void) {
    static const int errnos[] = {EACCES, EAGAIN, EINVAL, ENOLCK, ENOMEM};
    tenants t = tenants_make();
    size_t i;
    for (i = 0; i < 2 * HLSNAP_COUNT(errnos); i++) {
        hlsnap_oci_cache *c = cache_new(UINT64_MAX);
        hlsnap_oci_desc d = desc_of(c);
        hlsnap_snapshot *first, *second;
        hlsnap_snapshot_info info;
        d.guard = HLSNAP_OCI_GUARD_LEASE;
        no_lease = errnos[i / 2];
        leases_before = (int)(i % 2);
        first = load_with(t.dir, "t0", &d, HLSNAP_OK);
        leases_before = (int)(i % 2);
        second = load_with(t.dir, "t1", &d, HLSNAP_OK);
        no_lease = 0;
        hlsnap_snapshot_get_info(first, &info);
        CHECK_EQ(info.guard, HLSNAP_OCI_GUARD_PRIVATE);
        CHECK(first->layers[0] == second->layers[0] && first->layers[0]->sealed);
        check_same(t.of[0], first);
        check_same(t.of[1], second);
        CHECK_EQ(sh("chmod u+w %s && dd if=/dev/null of=%s oflag=nonblock conv=notrunc status=none", t.path, t.path), 0); /* nobody holds it */
        hlsnap_snapshot_release(first);
        hlsnap_snapshot_release(second);
        hlsnap_oci_cache_destroy(c);
    }
    tenants_free(&t);
    CHECK_EQ(alloc_live, 0);
}

/* Functions that have no use for a cache. */
static void no_use_for_it(void) {
    tenants t = tenants_make();
    hlsnap_oci_cache *c = cache_new(UINT64_MAX);
    hlsnap_oci_desc d = desc_of(c);
    const char *other = fresh();
    d.created = -1;
    CHECK_EQ(hlsnap_oci_save(t.dir, "new", t.of[2], &d, NULL, &err), HLSNAP_OK);
    CHECK_EQ(hlsnap_oci_tag_with(t.dir, "new", "newer", &d, &err), HLSNAP_OK);
    CHECK_EQ(hlsnap_oci_untag_with(t.dir, "new", &d, &err), HLSNAP_OK);
    CHECK_EQ(hlsnap_oci_copy(t.dir, "t3", other, "t3", &d, NULL, &err), HLSNAP_OK);
    CHECK_EQ(hlsnap_oci_flatten(t.dir, "t4", "flat", &d, NULL, &err), HLSNAP_OK);
    CHECK_EQ(hlsnap_oci_gc_with(t.dir, 0, &d, NULL, &err), HLSNAP_OK);
    CHECK_EQ(hlsnap_oci_fsck_with(t.dir, true, &d, &err), HLSNAP_OK);
    CHECK(c->num_kept == 0 && c->num_parsed == 0 && c->bytes == 0 && c->refs == 1);
    hlsnap_snapshot_release(load_tenant(&t, 0, c));
    CHECK_EQ(c->num_kept, 2);
    hlsnap_oci_cache_destroy(c);
    tenants_free(&t);
    CHECK_EQ(alloc_live, 0);
}

/* Moved many times within a tick of the clock, by a rename and in place, with the size as it was. */
static void moved_within_a_tick(void) {
    tenants t = tenants_make();
    hlsnap_oci_cache *c = cache_new(UINT64_MAX);
    hlsnap_oci_digest digest[2], found;
    hlsnap_oci_desc d = desc_of(c);
    char path[120];
    int i, fd;
    off_t at = -1;
    struct stat st;
    char *text;
    CHECK_EQ(hlsnap_oci_resolve(t.dir, "t0", &digest[0], &err), HLSNAP_OK);
    CHECK_EQ(hlsnap_oci_resolve(t.dir, "t1", &digest[1], &err), HLSNAP_OK);
    for (i = 0; i < 200 && !test_bad; i++) {
        hlsnap_snapshot *s = NULL;
        CHECK_EQ(hlsnap_oci_tag(t.dir, digest[i % 2].text, "moved", &err), HLSNAP_OK);
        CHECK_EQ(hlsnap_oci_load(t.dir, "moved", &d, &s, &found, &err), HLSNAP_OK);
        CHECK_STR(found.text, digest[i % 2].text);
        hlsnap_snapshot_release(s);
    }
    snprintf(path, sizeof(path), "%s/index.json", t.dir);
    fd = open(path, O_RDWR);
    CHECK(fd >= 0 && fstat(fd, &st) == 0);
    text = (char *)calloc(1, (size_t)st.st_size + 1);
    CHECK_EQ(pread(fd, text, (size_t)st.st_size, 0), st.st_size);
    if (CHECK(strstr(text, "\"moved\""))) { /* the digest before the tag */
        char *tag = strstr(text, "\"moved\""), *p = text, *q;
        while ((q = strstr(p, "sha256:")) && q < tag) p = q + 1;
        at = p - 1 - text;
    }
    for (i = 0; i < 500 && !test_bad; i++) {
        hlsnap_snapshot *s = NULL;
        CHECK_EQ(pwrite(fd, digest[i % 2].text, 71, at), 71);
        CHECK_EQ(hlsnap_oci_load(t.dir, "moved", &d, &s, &found, &err), HLSNAP_OK);
        CHECK_STR(found.text, digest[i % 2].text);
        hlsnap_snapshot_release(s);
    }
    close(fd);
    free(text);
    hlsnap_oci_cache_destroy(c);
    tenants_free(&t);
    CHECK_EQ(alloc_live, 0);
}

/* Moved by another process, which says before and after how often it has. */
static void moved_by_others(void) {
    tenants t = tenants_make();
    hlsnap_oci_cache *c = cache_new(UINT64_MAX);
    hlsnap_oci_digest digest[2], found;
    const hlsnap_oci_desc d = desc_of(c);
    uint64_t *moves = (uint64_t *)mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    int i, certain = 0, status = -1;
    pid_t pid;
    later_s = 100; /* what is not being changed just now counts as settled: only inode and times can tell */
    CHECK_EQ(hlsnap_oci_resolve(t.dir, "t0", &digest[0], &err), HLSNAP_OK);
    CHECK_EQ(hlsnap_oci_resolve(t.dir, "t1", &digest[1], &err), HLSNAP_OK);
    CHECK_EQ(hlsnap_oci_tag(t.dir, "t0", "moved", &err), HLSNAP_OK);
    fflush(stdout);
    pid = fork();
    if (pid == 0) {
        for (i = 1; i <= 300; i++) { /* odd: it is moving */
            __atomic_store_n(&moves[0], (uint64_t)(2 * i - 1), __ATOMIC_SEQ_CST);
            if (hlsnap_oci_tag(t.dir, i % 2 ? "t1" : "t0", "moved", NULL)) _exit(1);
            __atomic_store_n(&moves[0], (uint64_t)(2 * i), __ATOMIC_SEQ_CST);
            if (i % 8 == 0) usleep(5000);
        }
        _exit(0);
    }
    later_s = 0;
    for (i = 0; !test_bad; i++) {
        const uint64_t was = __atomic_load_n(&moves[0], __ATOMIC_SEQ_CST);
        hlsnap_snapshot *s = NULL;
        CHECK_EQ(hlsnap_oci_load(t.dir, "moved", &d, &s, &found, &err), HLSNAP_OK);
        CHECK(strcmp(found.text, digest[0].text) == 0 || strcmp(found.text, digest[1].text) == 0);
        if (was % 2 == 0 && was == __atomic_load_n(&moves[0], __ATOMIC_SEQ_CST)) {
            certain++;
            CHECK_STR(found.text, digest[was / 2 % 2].text);
        }
        hlsnap_snapshot_release(s);
        if (waitpid(pid, &status, WNOHANG) == pid) break;
    }
    if (status == -1) CHECK_EQ(waitpid(pid, &status, 0), pid);
    CHECK_EQ(status, 0);
    printf("# %d loads, %d of them between two moves\n", i + 1, certain);
    CHECK(certain > 0);
    munmap(moves, 4096);
    hlsnap_oci_cache_destroy(c);
    tenants_free(&t);
    CHECK_EQ(alloc_live, 0);
}

/* ---- bounds ---- */

static void keeps_nothing(void) { /* max_bytes 0 */
    tenants t = tenants_make();
    hlsnap_oci_cache *c = cache_new(0);
    hlsnap_snapshot *s, *u;
    const int fds = count_fds();
    const uint64_t before = memfd_bytes();
    later_s = 100;
    s = load_tenant(&t, 0, c);
    u = load_tenant(&t, 1, c);
    CHECK(s->layers[0] == u->layers[0]);
    hlsnap_snapshot_release(s);
    s = load_tenant(&t, 2, c);
    CHECK(s->layers[0] == u->layers[0]);
    CHECK(c->num_kept == 0 && c->num_parsed == 0 && c->bytes == 0);
    hlsnap_snapshot_release(u);
    hlsnap_snapshot_release(s); /* at once, and not at the next load */
    CHECK_EQ(count_fds(), fds);
    CHECK_EQ(memfd_bytes(), before);
    count(t.name);
    hlsnap_snapshot_release(load_tenant(&t, 0, c));
    CHECK_EQ(bytes_read, 254 * P);
    hlsnap_oci_cache_destroy(c);
    tenants_free(&t);
    CHECK_EQ(alloc_live, 0);
}

/* Room for two layers of three: what was loaded last stays, what snapshots have is shared all the same. */
static void keeps_the_last(void) {
    const char *dir = fresh();
    hlsnap_snapshot *made[3], *s, *u;
    hlsnap_oci_cache *c = cache_new(2 * 104 * P);
    char path[3][120];
    uint32_t i;
    for (i = 0; i < 3; i++) {
        char tag[8];
        snprintf(tag, sizeof(tag), "v%u", i);
        made[i] = large(100, 10 + i);
        save(dir, tag, made[i], NULL);
        blob_of(dir, made[i], 0, path[i]);
    }
    for (i = 0; i < 2; i++) hlsnap_snapshot_release(load(dir, i ? "v1" : "v0", c));
    CHECK_EQ(c->bytes, 2 * 104 * P);
    hlsnap_snapshot_release(load(dir, "v0", c)); /* used again: v1 is the one to go */
    s = load(dir, "v2", c);
    CHECK_EQ(c->num_kept, 2);
    count(strrchr(path[0], '/') + 1);
    hlsnap_snapshot_release(load(dir, "v0", c));
    CHECK_EQ(bytes_read, 0);
    count(strrchr(path[1], '/') + 1);
    u = load(dir, "v1", c); /* and now v2, which s has */
    CHECK_EQ(bytes_read, 104 * P);
    count(strrchr(path[2], '/') + 1);
    CHECK_EQ(c->bytes, 2 * 104 * P);
    hlsnap_snapshot_release(u);
    u = load(dir, "v2", c);
    CHECK(u->layers[0] == s->layers[0]);
    CHECK_EQ(bytes_read, 0);
    hlsnap_snapshot_release(s);
    hlsnap_snapshot_release(u);
    CHECK_EQ(c->bytes, 2 * 104 * P);
    CHECK_EQ(memfd_bytes() / P, 3 * 104 + 2 * 104); /* the tests' own three, and two */
    hlsnap_oci_cache_destroy(c);
    c = cache_new(104 * P - 1); /* room for none */
    s = load(dir, "v0", c);
    CHECK_EQ(c->num_kept, 0);
    u = load(dir, "v0", c);
    CHECK(u->layers[0] == s->layers[0]);
    hlsnap_snapshot_release(s);
    hlsnap_snapshot_release(u);
    CHECK_EQ(memfd_bytes() / P, 3 * 104);
    hlsnap_oci_cache_destroy(c);
    for (i = 0; i < 3; i++) hlsnap_snapshot_release(made[i]);
    counted = NULL;
    CHECK_EQ(alloc_live, 0);
}

/* However small layers are, descriptors do not run out; nor does memory, however many layouts there are. */
static void keeps_few(void) {
    const char *dir = fresh();
    hlsnap_oci_cache *c;
    const int fds = count_fds();
    struct rlimit was, few;
    char tag[16];
    uint32_t i;
    CHECK_EQ(getrlimit(RLIMIT_NOFILE, &was), 0);
    few = was;
    few.rlim_cur = 128;
    CHECK_EQ(setrlimit(RLIMIT_NOFILE, &few), 0);
    c = cache_new(UINT64_MAX);
    for (i = 0; i < 60; i++) {
        hlsnap_snapshot *s = large(1 + i, i);
        snprintf(tag, sizeof(tag), "v%u", i);
        save(dir, tag, s, NULL);
        hlsnap_snapshot_release(s);
        hlsnap_snapshot_release(load(dir, tag, c));
        CHECK(count_fds() <= fds + 32);
    }
    CHECK_EQ(c->num_kept, 32);
    CHECK_EQ(setrlimit(RLIMIT_NOFILE, &was), 0);
    later_s = 100;
    for (i = 0; i < 40; i++) {
        const hlsnap_oci_desc d = desc_of(c);
        char path[40];
        FILE *f;
        snprintf(tag, sizeof(tag), "%.8s.%u", dir, i);
        CHECK_EQ(sh("rm -rf %s && mkdir %s && cp %s/oci-layout %s", tag, tag, dir, tag), 0);
        snprintf(path, sizeof(path), "%s/index.json", tag);
        f = fopen(path, "w");
        fprintf(f, "{\"schemaVersion\":2,\"manifests\":[]%*s}", i == 38 ? 5940 : 2, "");
        fclose(f);
        load_with(tag, "v1", &d, HLSNAP_ERR_NOT_FOUND);
        CHECK_EQ(c->num_parsed, i < 15 ? i + 1 : i < 38 ? 16 : 1);
    }
    CHECK_EQ(sh("rm -r %s.*", dir), 0);
    later_s = 0;
    hlsnap_oci_cache_destroy(c);
    CHECK_EQ(alloc_live, 0);
    CHECK_EQ(count_fds(), fds);
}

/* ---- threads ---- */

static struct together {
    const char *dir;
    hlsnap_oci_cache *cache;
    hlsnap_snapshot *of[8];
    hlsnap_result r[8];
    pthread_barrier_t start;
    bool later;
} together;

static void *load_together(void *arg) {
    const size_t i = (size_t)(uintptr_t)arg;
    hlsnap_oci_desc d = desc_of(together.cache);
    hlsnap_error e;
    d.threads = i % 2 ? 2 : 0;
    d.verify_later = together.later;
    pthread_barrier_wait(&together.start);
    together.r[i] = hlsnap_oci_load(together.dir, "base", &d, &together.of[i], NULL, &e);
    return NULL;
}

static void all_load(const char *dir, hlsnap_oci_cache *c) {
    pthread_t threads[8];
    size_t i;
    together.dir = dir;
    together.cache = c;
    memset(together.of, 0, sizeof(together.of));
    pthread_barrier_init(&together.start, NULL, 8);
    for (i = 0; i < 8; i++) CHECK_EQ(pthread_create(&threads[i], NULL, load_together, (void *)(uintptr_t)i), 0);
    for (i = 0; i < 8; i++) CHECK_EQ(pthread_join(threads[i], NULL), 0);
    pthread_barrier_destroy(&together.start);
}

static bool slow(int fd) {
    (void)fd;
    usleep(20000);
    return true;
}

static void loads_at_once(void) {
    tenants t = tenants_make();
    hlsnap_oci_cache *c;
    int round, i;
    for (round = 0; round < 6 && !test_bad; round++) {
        const uint64_t before = memfd_bytes();
        c = cache_new(round % 2 ? UINT64_MAX : 0);
        at_read = round < 2 ? slow : NULL;
        count(t.name);
        all_load(t.dir, c);
        CHECK_EQ(bytes_read, 254 * P); /* one made it, and the others waited */
        CHECK_EQ(memfd_bytes() - before, 254 * P);
        for (i = 7; i >= 0; i--) {
            CHECK_EQ(together.r[i], HLSNAP_OK);
            CHECK(together.of[i] && together.of[i]->layers[0] == together.of[0]->layers[0]);
            hlsnap_snapshot_release(together.of[i]);
        }
        hlsnap_oci_cache_destroy(c);
        CHECK_EQ(memfd_bytes(), before);
    }
    tenants_free(&t);
    CHECK_EQ(alloc_live, 0);
}

/* With verify_later nobody waits, and it may be made more than once; what is kept is one. */
static void loads_at_once_for_later(void) {
    tenants t = tenants_make();
    hlsnap_oci_cache *c = cache_new(UINT64_MAX);
    const uint64_t before = memfd_bytes();
    hlsnap_snapshot *s;
    int i;
    together.later = true;
    all_load(t.dir, c);
    together.later = false;
    for (i = 0; i < 8; i++) {
        CHECK_EQ(together.r[i], HLSNAP_OK);
        CHECK_EQ(hlsnap__snapshot_check(together.of[i], true, &err), HLSNAP_OK);
        check_same(t.base, together.of[i]);
        hlsnap_snapshot_release(together.of[i]);
    }
    CHECK_EQ(memfd_bytes() - before, 254 * P);
    count(t.name);
    s = load(t.dir, "base", c);
    check_same(t.base, s);
    CHECK_EQ(bytes_read, 0);
    hlsnap_snapshot_release(s);
    hlsnap_oci_cache_destroy(c);
    tenants_free(&t);
    CHECK_EQ(alloc_live, 0);
}

static int32_t fails_left;
static bool fails_at_first(int fd) {
    (void)fd;
    usleep(20000); /* so that the others wait for it */
    return __atomic_sub_fetch(&fails_left, 1, __ATOMIC_RELAXED) < 0;
}

static void first_one_fails(void) {
    tenants t = tenants_make();
    hlsnap_oci_cache *c = cache_new(UINT64_MAX);
    int i, failed = 0;
    count(t.name);
    fails_left = 2;
    at_read = fails_at_first;
    all_load(t.dir, c);
    for (i = 0; i < 8; i++) {
        failed += together.r[i] == HLSNAP_ERR_OS;
        CHECK(together.r[i] == HLSNAP_OK || together.r[i] == HLSNAP_ERR_OS);
        hlsnap_snapshot_release(together.of[i]);
    }
    CHECK_EQ(failed, 2);
    CHECK_EQ(bytes_read, 254 * P);
    hlsnap_oci_cache_destroy(c);
    tenants_free(&t);
    CHECK_EQ(alloc_live, 0);
}

/* Who makes a layer, and in its progress loads the same by the same cache, or waits for somebody who does: it is not waited for
   without end. */
typedef struct inner { const char *dir; hlsnap_oci_cache *cache; hlsnap_snapshot *got; int calls, cancels; } inner;
static bool loads_inside(uint64_t done, uint64_t total, void *user) {
    inner *in = (inner *)user;
    hlsnap_error e;
    const hlsnap_oci_desc d = desc_of(in->cache);
    (void)done, (void)total;
    if (in->calls++ == 0) CHECK_EQ(hlsnap_oci_load(in->dir, "base", &d, &in->got, NULL, &e), HLSNAP_OK);
    return true;
}
static void loads_inside_a_load(void) {
    tenants t = tenants_make();
    hlsnap_oci_cache *c = cache_new(UINT64_MAX);
    hlsnap_oci_desc d = desc_of(c);
    const uint64_t before = memfd_bytes();
    inner in = {NULL, NULL, NULL, 0, 0};
    hlsnap_snapshot *s;
    in.dir = t.dir;
    in.cache = c;
    d.progress = loads_inside;
    d.user = &in;
    s = load_with(t.dir, "base", &d, HLSNAP_OK);
    check_same(t.base, s);
    check_same(t.base, in.got);
    CHECK(s->layers[0] == in.got->layers[0]); /* two were made, and one is left */
    CHECK_EQ(memfd_bytes() - before, 254 * P);
    hlsnap_snapshot_release(s);
    hlsnap_snapshot_release(in.got);
    hlsnap_oci_cache_destroy(c);
    tenants_free(&t);
    CHECK_EQ(alloc_live, 0);
}

static bool cancels(uint64_t done, uint64_t total, void *user) {
    inner *in = (inner *)user;
    CHECK(done <= total);
    return ++in->calls < in->cancels;
}
static void *load_held(void *arg) {
    const tenants *t = (const tenants *)arg;
    const hlsnap_oci_desc d = desc_of(together.cache);
    hlsnap_error e;
    together.r[0] = hlsnap_oci_load(t->dir, "base", &d, &together.of[0], NULL, &e);
    return NULL;
}
static void cancelled_while_it_waits(void) {
    tenants t = tenants_make();
    hlsnap_oci_cache *c = cache_new(UINT64_MAX);
    hlsnap_oci_desc d = desc_of(c);
    inner in = {NULL, NULL, NULL, 0, 5};
    pthread_t thread;
    count(t.name);
    held = 1;
    entered = 0;
    at_read = hold;
    together.cache = c;
    CHECK_EQ(pthread_create(&thread, NULL, load_held, &t), 0);
    while (!__atomic_load_n(&entered, __ATOMIC_ACQUIRE)) usleep(1000);
    d.progress = cancels;
    d.user = &in;
    load_with(t.dir, "base", &d, HLSNAP_ERR_CANCELLED);
    CHECK_EQ(in.calls, 5);
    CHECK_EQ(bytes_read, 0);
    __atomic_store_n(&held, 0, __ATOMIC_RELEASE);
    CHECK_EQ(pthread_join(thread, NULL), 0);
    CHECK_EQ(together.r[0], HLSNAP_OK);
    in.calls = 0;
    in.cancels = 1; /* and what is there needs its consent, too */
    load_with(t.dir, "base", &d, HLSNAP_ERR_CANCELLED);
    hlsnap_snapshot_release(together.of[0]);
    hlsnap_oci_cache_destroy(c);
    tenants_free(&t);
    CHECK_EQ(alloc_live, 0);
}

/* The cache is destroyed while a load makes something for it, and before a verification that was put off ends. */
static void destroyed_meanwhile(void) {
    tenants t = tenants_make();
    hlsnap_oci_cache *c = cache_new(UINT64_MAX);
    hlsnap_oci_desc d = desc_of(c);
    const uint64_t before = memfd_bytes();
    hlsnap_snapshot *s;
    pthread_t thread;
    count(t.name);
    held = 1;
    entered = 0;
    at_read = hold;
    together.cache = c;
    CHECK_EQ(pthread_create(&thread, NULL, load_held, &t), 0);
    while (!__atomic_load_n(&entered, __ATOMIC_ACQUIRE)) usleep(1000);
    hlsnap_oci_cache_destroy(c);
    __atomic_store_n(&held, 0, __ATOMIC_RELEASE);
    CHECK_EQ(pthread_join(thread, NULL), 0);
    CHECK_EQ(together.r[0], HLSNAP_OK);
    check_same(t.base, together.of[0]);
    hlsnap_snapshot_release(together.of[0]);
    c = cache_new(UINT64_MAX);
    at_read = NULL;
    d.cache = c;
    d.verify_later = true;
    s = load_with(t.dir, "t0", &d, HLSNAP_OK);
    hlsnap_oci_cache_destroy(c);
    check_same(t.of[0], s);
    CHECK_EQ(hlsnap__snapshot_check(s, true, &err), HLSNAP_OK);
    hlsnap_snapshot_release(s);
    CHECK_EQ(memfd_bytes(), before);
    tenants_free(&t);
    CHECK_EQ(alloc_live, 0);
}

/* Everything at once: loads, releases, tags that move, little room, files that change, caches that come and go. */
static struct storm { const tenants *t; hlsnap_oci_cache *cache; int32_t stop; uint64_t loads; } storm;
static void *storms(void *arg) {
    uint64_t seed = (uint64_t)(uintptr_t)arg;
    hlsnap_snapshot *mine[4] = {NULL, NULL, NULL, NULL};
    size_t i;
    while (!__atomic_load_n(&storm.stop, __ATOMIC_RELAXED)) {
        hlsnap_oci_desc d = desc_of(storm.cache);
        const uint32_t who = (uint32_t)lcg(&seed) % TENANTS, at = (uint32_t)lcg(&seed) % 4;
        hlsnap_snapshot *s = NULL;
        hlsnap_error e;
        hlsnap_result r;
        char tag[8];
        snprintf(tag, sizeof(tag), "t%u", who);
        d.verify_later = lcg(&seed) % 5 == 0;
        d.disable_verify = lcg(&seed) % 7 == 0;
        r = hlsnap_oci_load(storm.t->dir, tag, &d, &s, NULL, &e);
        if (r) printf("# %s\n", e.msg);
        CHECK_EQ(r, HLSNAP_OK);
        if (s && lcg(&seed) % 4 == 0) CHECK_EQ(hlsnap__snapshot_check(s, true, &e), HLSNAP_OK);
        hlsnap_snapshot_release(mine[at]);
        mine[at] = s;
        __atomic_add_fetch(&storm.loads, 1, __ATOMIC_RELAXED);
    }
    for (i = 0; i < 4; i++) hlsnap_snapshot_release(mine[i]);
    return NULL;
}
static void many_threads(void) {
    tenants t = tenants_make();
    const uint64_t before = memfd_bytes();
    uint64_t loads = 0;
    size_t i, round;
    for (round = 0; round < 3 && !test_bad; round++) {
        pthread_t threads[6];
        storm.t = &t;
        storm.stop = 0;
        storm.loads = 0;
        storm.cache = cache_new(round == 0 ? 0 : round == 1 ? 255 * P : UINT64_MAX);
        for (i = 0; i < 6; i++) CHECK_EQ(pthread_create(&threads[i], NULL, storms, (void *)(uintptr_t)(round * 10 + i + 1)), 0);
        for (i = 0; i < 30; i++) {
            CHECK_EQ(hlsnap_oci_tag(t.dir, i % 2 ? "t0" : "t1", "t7", &err), HLSNAP_OK);
            CHECK_EQ(chmod(t.path, i % 2 ? 0600 : 0640), 0); /* another ctime: it is to be read again */
            usleep(20000);
        }
        __atomic_store_n(&storm.stop, 1, __ATOMIC_RELAXED);
        for (i = 0; i < 6; i++) CHECK_EQ(pthread_join(threads[i], NULL), 0);
        loads += storm.loads;
        CHECK(memfd_bytes() - before <= storm.cache->max_bytes);
        hlsnap_oci_cache_destroy(storm.cache);
        CHECK_EQ(memfd_bytes(), before);
    }
    printf("# %llu loads\n", (unsigned long long)loads);
    tenants_free(&t);
    CHECK_EQ(alloc_live, 0);
}

/* ---- forks ---- */

static int in_child(void (*run)(void *), void *arg) {
    int status = -1;
    pid_t pid;
    fflush(stdout);
    pid = fork();
    if (pid == 0) {
        alarm(60);
        test_bad = 0;
        run(arg);
        fflush(stdout);
        _exit(test_bad != 0);
    }
    CHECK_EQ(waitpid(pid, &status, 0), pid);
    return status;
}

typedef struct family { tenants *t; hlsnap_oci_cache *cache; hlsnap_snapshot *s; bool locked; } family;

static void child_loads(void *arg) {
    const family *f = (const family *)arg;
    hlsnap_snapshot *u;
    uint64_t before;
    u = load_tenant(f->t, 1, f->cache);
    check_same(f->t->of[1], u);
    CHECK_EQ(u->layers[0] == f->s->layers[0], !f->locked);
    hlsnap_snapshot_release(f->s);
    hlsnap_snapshot_release(u);
    u = load_tenant(f->t, 2, f->cache);
    check_same(f->t->of[2], u);
    before = memfd_bytes();
    hlsnap_oci_cache_destroy(f->cache);
    check_same(f->t->of[2], u);
    hlsnap_snapshot_release(u);
    CHECK(f->locked || memfd_bytes() < before);
}

static void forked(void) {
    tenants t = tenants_make();
    family f = {&t, NULL, NULL, false};
    int i;
    for (i = 0; i < 2; i++) {
        f.cache = cache_new(UINT64_MAX);
        f.s = load_tenant(&t, 0, f.cache);
        f.locked = i == 1;
        f.cache->lock = i; /* as if another thread had it */
        CHECK_EQ(in_child(child_loads, &f), 0);
        f.cache->lock = 0;
        hlsnap_snapshot_release(f.s);
        f.s = load_tenant(&t, 1, f.cache); /* the parent's is as it was */
        CHECK(f.cache->num_kept == 3);
        hlsnap_snapshot_release(f.s);
        hlsnap_oci_cache_destroy(f.cache);
    }
    tenants_free(&t);
    CHECK_EQ(alloc_live, 0);
}

static void child_makes(void *arg) { /* what a thread of the parent was making */
    const family *f = (const family *)arg;
    hlsnap_snapshot *s, *u;
    at_read = NULL;
    s = load(f->t->dir, "base", f->cache);
    check_same(f->t->base, s);
    u = load_tenant(f->t, 3, f->cache);
    CHECK(u->layers[0] == s->layers[0]);
    hlsnap_snapshot_release(s);
    hlsnap_snapshot_release(u);
    hlsnap_oci_cache_destroy(f->cache);
}

static void forked_amid_a_load(void) {
    tenants t = tenants_make();
    family f = {&t, NULL, NULL, false};
    pthread_t thread;
    f.cache = together.cache = cache_new(UINT64_MAX);
    count(t.name);
    held = 1;
    entered = 0;
    at_read = hold;
    CHECK_EQ(pthread_create(&thread, NULL, load_held, &t), 0);
    while (!__atomic_load_n(&entered, __ATOMIC_ACQUIRE)) usleep(1000);
    CHECK_EQ(in_child(child_makes, &f), 0);
    __atomic_store_n(&held, 0, __ATOMIC_RELEASE);
    CHECK_EQ(pthread_join(thread, NULL), 0);
    CHECK_EQ(together.r[0], HLSNAP_OK);
    check_same(t.base, together.of[0]);
    hlsnap_snapshot_release(together.of[0]);
    hlsnap_oci_cache_destroy(f.cache);
    tenants_free(&t);
    CHECK_EQ(alloc_live, 0);
}

static void child_verifies(void *arg) { /* again, and leaves it to others */
    const family *f = (const family *)arg;
    hlsnap_snapshot *u;
    CHECK_EQ(verified(f->s), HLSNAP_OK);
    count(f->t->name);
    u = load_tenant(f->t, 1, f->cache);
    CHECK_EQ(ino_of(u, 0), ino_of(f->s, 0));
    CHECK_EQ(bytes_read, 0);
    hlsnap_snapshot_release(u);
    hlsnap_snapshot_release(f->s);
    hlsnap_oci_cache_destroy(f->cache);
}

static void forked_before_it_is_verified(void) {
    tenants t;
    family f = {&t, NULL, NULL, false};
    if (TSAN) SKIP("no threads behind a fork");
    t = tenants_make();
    f.cache = cache_new(UINT64_MAX);
    f.s = load_later(&t, t.dir, "t0", f.cache);
    CHECK_EQ(in_child(child_verifies, &f), 0);
    CHECK_EQ(verified(f.s), HLSNAP_OK);
    hlsnap_snapshot_release(f.s);
    hlsnap_oci_cache_destroy(f.cache);
    tenants_free(&t);
    CHECK_EQ(alloc_live, 0);
}

/* ---- what fails ---- */

static const char *oom_dir;
static hlsnap_oci_cache *oom_cache;
static hlsnap_result oom_cold(void) { /* a cache from its beginning to its end */
    hlsnap_oci_cache *c = NULL;
    hlsnap_snapshot *s = NULL, *u = NULL;
    hlsnap_oci_desc d = HLSNAP_ZERO;
    hlsnap_result r = hlsnap_oci_cache_create(UINT64_MAX, &c, &err);
    d.cache = c;
    if (!r) r = hlsnap_oci_load(oom_dir, "t0", &d, &s, NULL, &err);
    if (!r) r = hlsnap_oci_load(oom_dir, "t1", &d, &u, NULL, &err);
    hlsnap_snapshot_release(s);
    hlsnap_snapshot_release(u);
    hlsnap_oci_cache_destroy(c);
    return r;
}
static hlsnap_result oom_warm(void) {
    const hlsnap_oci_desc d = desc_of(oom_cache);
    hlsnap_snapshot *s = NULL;
    const hlsnap_result r = hlsnap_oci_load(oom_dir, "t0", &d, &s, NULL, &err);
    hlsnap_snapshot_release(s);
    return r;
}
static hlsnap_result oom_later(void) {
    hlsnap_oci_cache *c = NULL;
    hlsnap_snapshot *s = NULL;
    hlsnap_oci_desc d = HLSNAP_ZERO;
    hlsnap_result r = hlsnap_oci_cache_create(UINT64_MAX, &c, &err);
    d.cache = c;
    d.verify_later = true;
    if (!r) r = hlsnap_oci_load(oom_dir, "t0", &d, &s, NULL, &err);
    if (s) CHECK_EQ(hlsnap__snapshot_check(s, true, &err), HLSNAP_OK);
    hlsnap_snapshot_release(s);
    hlsnap_oci_cache_destroy(c);
    return r;
}
static hlsnap_result oom_resolve(void) {
    hlsnap_oci_digest digest;
    return hlsnap_oci_resolve(oom_dir, "t0", &digest, &err);
}

static void failing_allocations(void) {
    static const struct { const char *name; hlsnap_result (*run)(void); long least; } rows[] = {
        {"cold", oom_cold, 50}, {"warm", oom_warm, 15}, {"later", oom_later, 30}, {"resolve", oom_resolve, 5}};
    tenants t = tenants_make();
    size_t i;
    oom_dir = t.dir;
    later_s = 100;
    oom_cache = cache_new(UINT64_MAX);
    CHECK_EQ(oom_warm(), HLSNAP_OK);
    for (i = 0; i < HLSNAP_COUNT(rows); i++) {
        const int fds = count_fds();
        long k, live = alloc_live;
        for (k = 0; k < 1000 && !test_bad; k++) {
            hlsnap_result r;
            long left;
            alloc_left = k;
            r = rows[i].run();
            left = alloc_left;
            alloc_left = -1;
            if (!CHECK(r == HLSNAP_OK || r == HLSNAP_ERR_MEMORY)) printf("# %s, %ld: %s\n", rows[i].name, k, err.msg);
            if (r) CHECK_EQ(err.code, HLSNAP_ERR_MEMORY);
            CHECK_EQ(alloc_live, live);
            CHECK_EQ(count_fds(), fds);
            if (left >= 0) break;
        }
        printf("# %s: %ld allocations\n", rows[i].name, k);
        CHECK(k >= rows[i].least && k < 1000);
    }
    hlsnap_oci_cache_destroy(oom_cache);
    tenants_free(&t);
    CHECK_EQ(alloc_live, 0);
}

/* Where its lock is not to be had, everything goes on without it, and what was left behind harms nobody. */
static void without_the_lock(void) {
    tenants t = tenants_make();
    const long live = alloc_live;
    hlsnap_oci_cache *c = cache_new(0);
    hlsnap_snapshot *s = load_tenant(&t, 0, c), *u;
    uint32_t i;
    int left = 0;
    u = load_tenant(&t, 0, c);
    hlsnap_snapshot_release(s);
    s = load_tenant(&t, 1, c);
    CHECK(s->layers[0] == u->layers[0]);
    c->lock = 1;
    hlsnap_snapshot_release(s);
    hlsnap_snapshot_release(u); /* nobody has the layers any more, but their rows cannot be told */
    s = load_tenant(&t, 2, c);
    check_same(t.of[2], s);
    hlsnap_snapshot_release(s);
    c->lock = 0;
    s = load_tenant(&t, 0, c);
    check_same(t.of[0], s);
    u = load_tenant(&t, 1, c);
    CHECK(s->layers[0] == u->layers[0]);
    hlsnap_snapshot_release(s);
    hlsnap_snapshot_release(u);
    for (i = 0; i < HLSNAP__OCI_BUCKETS; i++)
        while (c->rows[i]) { /* of the base and two deltas: structs, nothing more */
            hlsnap__oci_row *row = c->rows[i];
            CHECK_EQ(row->layer->refs, 0);
            hlsnap__oci_row_unlist(c, row);
            hlsnap__free(row->layer);
            hlsnap__free(row);
            hlsnap__oci_cache_release(c);
            left++;
        }
    CHECK_EQ(left, 3);
    hlsnap_oci_cache_destroy(c);
    CHECK_EQ(alloc_live, live);
    tenants_free(&t);
    CHECK_EQ(alloc_live, 0);
}

static const test_row tests[] = {
    TEST(arguments), TEST(tenants_share_a_base), TEST(guards), TEST(nothing_left_for_later), TEST(verified_later_and_wrong),
    TEST(parts_of_a_layer), TEST(saved_again), TEST(clones_are_shared), TEST(changed_on_disk), TEST(other_blobs_change), TEST(as_without_a_cache), TEST(other_layouts),
    TEST(part_of_another_layout), TEST(same_name_other_content), TEST(resolves), TEST(indexes_are_parsed_once), TEST(clocks_that_lie), TEST(any_mtime), TEST(any_times),
    TEST(leases_refused), TEST(no_use_for_it), TEST(moved_within_a_tick),
    TEST(moved_by_others), TEST(keeps_nothing), TEST(keeps_the_last), TEST(keeps_few), TEST(loads_at_once),
    TEST(loads_at_once_for_later), TEST(first_one_fails), TEST(loads_inside_a_load), TEST(cancelled_while_it_waits),
    TEST(destroyed_meanwhile), TEST(many_threads), TEST(forked), TEST(forked_amid_a_load), TEST(forked_before_it_is_verified),
    TEST(failing_allocations), TEST(without_the_lock)};

int main(int argc, char **argv) {
    const char *tmp = getenv("TMPDIR");
    char dir[200];
    int r;
    snprintf(dir, sizeof(dir), "%.150s/hlsnap_cache.XXXXXX", tmp ? tmp : "/tmp");
    if (!mkdtemp(dir) || chdir(dir) != 0) return 1;
    r = TEST_MAIN(tests, argc, argv);
    if (chdir("/") != 0 || sh("rm -rf %s", dir) != 0) return 1;
    return r;
}

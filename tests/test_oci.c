/* test_oci.c - hlsnap_oci.h: sha256, strict JSON, save, load, hostile layouts, injected failures, other tools.
   cc:  cc -std=gnu11 -I. test_oci.c -lcjson -o test_oci
   run: ./test_oci [name]      works in a directory of its own under $TMPDIR or /tmp; every line but "not ok" is fine */
#define _GNU_SOURCE 1
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include "test.h"

/* ---- failure injection: allocations through HLSNAP_MALLOC, system calls through macros that hlsnap sees ---- */

static long alloc_fail = -1, alloc_count, alloc_live, sys_fail = -1, sys_count;
static int sys_errno = EIO;
static bool no_tmpfile, no_openat2, short_io, recording;
static const char *vanish;     /* a blob's name that ends with it is not there, that many times */
static int vanish_times, other_failed, lock_opens;
static const char *other_dir;
static const char *resized;    /* this file gets resized_to bytes just before it is read for the first time */
static off_t resized_to;
static char events[20000];     /* syncs, links and renames while recording */

__attribute__((format(printf, 1, 2))) static void record(const char *fmt, ...) {
    va_list ap;
    if (!recording) return;
    va_start(ap, fmt);
    vsnprintf(events + strlen(events), sizeof(events) - strlen(events), fmt, ap);
    va_end(ap);
}

static void *t_malloc(size_t n) {
    void *p = alloc_count++ == alloc_fail ? NULL : malloc(n);
    alloc_live += p != NULL;
    return p;
}
static void t_free(void *p) {
    alloc_live -= p != NULL;
    free(p);
}
static bool trip(void) {
    if (sys_count++ != sys_fail) return false;
    errno = sys_errno;
    return true;
}
static int t_open(const char *p, int flags, mode_t mode) { return trip() ? -1 : open(p, flags, mode); }
static int t_openat(int at, const char *p, int flags, mode_t mode) {
    if (no_tmpfile && (flags & O_TMPFILE) == O_TMPFILE) return errno = EOPNOTSUPP, -1;
    lock_opens += strcmp(p, ".hlsnap.lock") == 0;
    if (other_failed && strcmp(p, ".hlsnap.lock") == 0) { /* another save that fails cleans up just now */
        int what = other_failed, fd;
        other_failed = 0;
        if (what == 2) rmdir(other_dir);
        fd = openat(at, p, flags, mode);
        if (what != 2) unlinkat(at, p, 0);
        if (what == 3) close(openat(at, p, O_RDWR | O_CREAT, 0600)); /* and a third one is there already */
        return fd;
    }
    return trip() ? -1 : openat(at, p, flags, mode);
}
static long t_syscall(long n, long a, long b, long c, long d, long e) {
    if (n == 437 && no_openat2) return errno = ENOSYS, -1;
    if (n == 437 && vanish_times && strstr((const char *)b, vanish)) return vanish_times--, errno = ENOENT, -1;
    return trip() ? -1 : syscall(n, a, b, c, d, e);
}
static ssize_t t_pwrite(int fd, const void *p, size_t n, off_t at) {
    if (trip()) return -1;
    if (short_io && sys_count % 3 == 0) return errno = EINTR, -1;
    return pwrite(fd, p, short_io && n > 1000 ? n / 2 : n, at);
}
static ssize_t t_pread(int fd, void *p, size_t n, off_t at) {
    struct stat a, b;
    if (resized && fstat(fd, &a) == 0 && stat(resized, &b) == 0 && a.st_ino == b.st_ino) {
        if (truncate(resized, resized_to) != 0) return -1;
        resized = NULL;
    }
    if (trip()) return -1;
    if (short_io && sys_count % 3 == 0) return errno = EINTR, -1;
    return pread(fd, p, short_io && n > 1000 ? n / 2 : n, at);
}
static int t_fsync(int fd) {
    struct stat st;
    if (fstat(fd, &st) == 0) record("sync %ld;", (long)st.st_ino);
    return trip() ? -1 : fsync(fd);
}
static int t_mkdir(const char *p, mode_t m) { return trip() ? -1 : mkdir(p, m); }
static int t_mkdirat(int at, const char *p, mode_t m) { return trip() ? -1 : mkdirat(at, p, m); }
static int t_fstat(int fd, struct stat *st) { return trip() ? -1 : fstat(fd, st); }
static int t_linkat(int a, const char *p, int b, const char *q, int f) {
    record("link %s;", q);
    return trip() ? -1 : linkat(a, p, b, q, f);
}
static int t_renameat(int a, const char *p, int b, const char *q) {
    record("rename %s;", q);
    return trip() ? -1 : renameat(a, p, b, q);
}
static int t_ftruncate(int fd, off_t n) { return trip() ? -1 : ftruncate(fd, n); }
static int t_fchmod(int fd, mode_t m) { return trip() ? -1 : fchmod(fd, m); }
static int t_fcntl(int fd, int command, long arg) { return trip() ? -1 : fcntl(fd, command, arg); }
static int t_nanosleep(const struct timespec *t, struct timespec *left) { /* nobody waits long here */
    const struct timespec less = {0, t->tv_nsec / 32};
    return nanosleep(&less, left);
}
static int t_fstatat(int at, const char *p, struct stat *st, int flags) { return trip() ? -1 : fstatat(at, p, st, flags); }
static void *t_mmap(void *p, size_t n, int prot, int flags, int fd, off_t at) {
    return trip() ? MAP_FAILED : mmap(p, n, prot, flags, fd, at);
}
#define T_ARG5(n, a, b, c, d, e, ...) t_syscall(n, (long)(a), (long)(b), (long)(c), (long)(d), (long)(e))
#define open(...) T_OPEN(__VA_ARGS__, 0, 0)
#define T_OPEN(p, flags, mode, ...) t_open(p, flags, mode)
#define openat(...) T_OPENAT(__VA_ARGS__, 0, 0)
#define T_OPENAT(at, p, flags, mode, ...) t_openat(at, p, flags, (mode_t)(mode))
#define syscall(...) T_ARG5(__VA_ARGS__, 0, 0, 0, 0, 0, 0)
#define pwrite t_pwrite
#define pread t_pread
#define fsync t_fsync
#define mkdir t_mkdir
#define mkdirat t_mkdirat
#define fstat(fd, st) t_fstat(fd, st)
#define linkat t_linkat
#define renameat t_renameat
#define ftruncate t_ftruncate
#define fchmod t_fchmod
#define fcntl(fd, command, arg) t_fcntl(fd, command, (long)(arg))
#define fstatat t_fstatat
#define nanosleep t_nanosleep
#define mmap t_mmap
#define HLSNAP_MALLOC(n) t_malloc(n)
#define HLSNAP_FREE(p) t_free(p)
#define HLSNAP_IMPLEMENTATION
#include "hlsnap_oci.h"
#undef open
#undef openat
#undef syscall
#undef pwrite
#undef pread
#undef fsync
#undef mkdir
#undef mkdirat
#undef fstat
#undef linkat
#undef renameat
#undef ftruncate
#undef fchmod
#undef fcntl
#undef fstatat
#undef nanosleep
#undef mmap

/* ---- helpers: files ---- */

static char home[200];         /* the scratch directory; also the working directory */

static void put(const char *path, const void *data, size_t n) {
    int fd;
    unlink(path);
    fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    if (!CHECK(fd >= 0)) return;
    CHECK_EQ(write(fd, data, n), n);
    close(fd);
}
static void puts_to(const char *path, const char *text) { put(path, text, strlen(text)); }

static char *get(const char *path, size_t *size) { /* malloc'ed, with a NUL */
    FILE *f = fopen(path, "rb");
    char *p = (char *)calloc(1, 1 << 22);
    size_t n = f ? fread(p, 1, (1 << 22) - 1, f) : 0;
    if (f) fclose(f);
    if (size) *size = n;
    return p;
}

static void digest_of(const void *data, size_t n, char text[72]) {
    uint8_t sum[32];
    hlsnap__sha256_of(hlsnap__sha256_portable, data, n, sum);
    hlsnap__sha256_text(sum, text);
}

static const char *blob_path(const char *dir, const char *digest) {
    static char path[4][300];
    static int i;
    i = (i + 1) % 4;
    snprintf(path[i], sizeof(path[i]), "%s/blobs/sha256/%s", dir, digest + 7);
    return path[i];
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw) {
    (void)st, (void)type, (void)ftw;
    return remove(path);
}
static void rm_rf(const char *path) { nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS); }

static void names_below(char *text, const char *dir, const char *shown) {
    struct dirent **all;
    int n = scandir(dir, &all, NULL, alphasort), i;
    for (i = 0; i < n; i++) {
        char path[600], show[600];
        struct stat st;
        snprintf(path, sizeof(path), "%s/%s", dir, all[i]->d_name);
        snprintf(show, sizeof(show), "%s%s", shown, all[i]->d_name);
        if (strcmp(all[i]->d_name, ".") && strcmp(all[i]->d_name, "..") && lstat(path, &st) == 0) {
            bool is_dir = S_ISDIR(st.st_mode);
            sprintf(text + strlen(text), "%s %lld\n", show, is_dir ? -1 : (long long)st.st_size);
            strcat(show, "/");
            if (is_dir) names_below(text, path, show);
        }
        free(all[i]);
    }
    if (n >= 0) free(all);
}

/* Names below a directory, sorted, with sizes of what is not a directory. */
static char *names(const char *dir) {
    static char text[2][60000];
    static int which;
    which = !which;
    text[which][0] = 0;
    names_below(text[which], dir, "");
    return text[which];
}

/* No name but those a layout has. */
static bool tidy(const char *dir) {
    static const char *const known[] = {"oci-layout", "index.json", ".hlsnap.lock", "blobs", "blobs/sha256"};
    char *line, *rest;
    size_t i;
    for (line = strtok_r(names(dir), "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
        *strrchr(line, ' ') = 0;
        for (i = 0; i < HLSNAP_COUNT(known) && strcmp(line, known[i]) != 0; i++) {}
        if (i < HLSNAP_COUNT(known)) continue;
        if (strncmp(line, "blobs/sha256/", 13) == 0 && strspn(line + 13, "0123456789abcdef") == 64 && strlen(line) == 77) continue;
        printf("# stray %s\n", line);
        return false;
    }
    return true;
}

/* Every blob is what its name says, by a program that shares no code with hlsnap. */
static bool sums_right(const char *dir) {
    return sh("cd %s/blobs/sha256 && for f in *; do [ -f $f ] && [ ! -L $f ] && [ \"$(sha256sum < $f)\" = \"$f  -\" ] || exit 1; done", dir) == 0;
}

/* ---- helpers: synthetic snapshots ---- */

#include "oci_make.h"

/* Two layers, seven extents over four regions, one zero page inside an extent, and extents that touch where regions do. */
static hlsnap_snapshot *snapshot_new(uint64_t seed) {
    static const hlsnap__extent e[] = {{0, 4, 0, 0},   {4, 2, 0, 4},    {6, 3, 1, 0},    {20, 30, 0, 6},
                                       {50, 2, 1, 3},  {100, 1, 0, 36}, {276, 1, 1, 5}};
    return snapshot_over(guest_new(), layer_new(37, seed, 10), layer_new(6, seed + 1, 99), e, HLSNAP_COUNT(e));
}

static hlsnap_error err;

static hlsnap_result save(const char *dir, const char *tag, hlsnap_snapshot *s, char digest[72]) {
    hlsnap_oci_desc desc = HLSNAP_ZERO;
    hlsnap_oci_digest d;
    hlsnap_result r;
    desc.created = -1; /* so that the index is known to the byte */
    r = hlsnap_oci_save(dir, tag, s, &desc, &d, &err);
    if (r == HLSNAP_OK && digest) memcpy(digest, d.text, sizeof(d.text));
    return r;
}

static hlsnap_result load_with(const char *dir, const char *ref, hlsnap_oci_guard guard, bool disable_verify, hlsnap_snapshot **out) {
    hlsnap_oci_desc desc = HLSNAP_ZERO;
    desc.guard = guard;
    desc.disable_verify = disable_verify;
    return hlsnap_oci_load(dir, ref, &desc, out, NULL, &err);
}

static hlsnap_result loads(const char *dir, const char *ref) { /* and nothing more */
    hlsnap_snapshot *s;
    hlsnap_result r = hlsnap_oci_load(dir, ref, NULL, &s, NULL, &err);
    hlsnap_snapshot_release(s);
    return r;
}

/* A fresh directory name under the scratch directory; nothing is there yet. */
static const char *fresh(void) {
    static char path[8][32];
    static int n;
    char *p = path[n % 8];
    snprintf(p, 32, "d%d", n++);
    rm_rf(p);
    return p;
}

/* ---- sha256 ---- */

static void hex_of(hlsnap__sha256_lane lane, const void *data, size_t n, char text[72]) {
    uint8_t sum[32];
    hlsnap__sha256_of(lane, data, n, sum);
    hlsnap__sha256_text(sum, text);
}

static void sha256_vectors(void) {
    static const char *const rows[][2] = {
        {"", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
        {"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},
        {"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
         "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"}};
    hlsnap__sha256_lane lanes[2];
    hlsnap__sha256 s;
    uint8_t sum[32];
    char text[72], chunk[1000];
    size_t i, k;
    lanes[0] = hlsnap__sha256_portable;
    lanes[1] = hlsnap__sha256_pick(hlsnap__cpu_features())->one;
    for (k = 0; k < 2; k++) {
        for (i = 0; i < 3; i++) {
            hex_of(lanes[k], rows[i][0], strlen(rows[i][0]), text);
            CHECK_STR(text + 7, rows[i][1]);
        }
        memset(chunk, 'a', sizeof(chunk));
        hlsnap__sha256_init(&s, lanes[k]);
        for (i = 0; i < 1000; i++) hlsnap__sha256_update(&s, chunk, sizeof(chunk));
        hlsnap__sha256_final(&s, sum);
        hlsnap__sha256_text(sum, text);
        CHECK_STR(text + 7, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
    }
}

static void sha256_lanes_agree(void) {
    static uint8_t data[4200];
    hlsnap__sha256_lane fast = hlsnap__sha256_pick(hlsnap__cpu_features())->one;
    char a[72], b[72];
    uint64_t seed = 1;
    size_t i, bad = 0;
    if (fast == hlsnap__sha256_portable) SKIP("no SHA extensions here");
    for (i = 0; i < sizeof(data); i++) data[i] = (uint8_t)lcg(&seed);
    for (i = 0; i <= 4096; i++) {
        hex_of(fast, data + i % 7, i, a);
        hex_of(hlsnap__sha256_portable, data + i % 7, i, b);
        bad += strcmp(a, b) != 0;
    }
    CHECK_EQ(bad, 0);
}

static void sha256_streams(void) { /* any split gives the same sum, and sha256sum agrees */
    static uint8_t data[300000];
    char a[72], b[72], line[80] = "";
    uint64_t seed = 3;
    int round;
    size_t i;
    for (i = 0; i < sizeof(data); i++) data[i] = (uint8_t)lcg(&seed);
    for (round = 0; round < 20; round++) {
        size_t n = lcg(&seed) % sizeof(data), at = 0;
        hlsnap__sha256 s;
        uint8_t sum[32];
        FILE *p;
        hlsnap__sha256_init(&s, hlsnap__sha256_pick(hlsnap__cpu_features())->one);
        while (at < n) {
            size_t k = lcg(&seed) % 300 + 1;
            if (k > n - at) k = n - at;
            hlsnap__sha256_update(&s, data + at, k);
            at += k;
        }
        hlsnap__sha256_final(&s, sum);
        hlsnap__sha256_text(sum, a);
        hex_of(hlsnap__sha256_portable, data, n, b);
        CHECK_STR(a, b);
        put("sum", data, n);
        p = popen("sha256sum < sum", "r");
        if (!CHECK(p && fgets(line, sizeof(line), p))) break;
        pclose(p);
        line[64] = 0;
        CHECK_STR(a + 7, line);
    }
}

/* ---- json ---- */

static hlsnap_result json(const char *text, size_t size) {
    hlsnap__json d;
    hlsnap_result r;
    memset(&d, 0, sizeof(d));
    strcpy(d.file, "test");
    d.code = HLSNAP_ERR_CONFIG;
    d.text = (char *)hlsnap__alloc(1, size + 1, NULL);
    memcpy(d.text, text, size);
    d.size = size;
    r = hlsnap__json_parse(&d, &err);
    if (!r) r = hlsnap__json_plain(&d, &err);
    hlsnap__json_close(&d);
    return r;
}

static void json_strict(void) {
    static const struct { const char *text; int code; } rows[] = {
        {"{}", 0}, {" {\"a\":[1,-2,{}],\"b\":null,\"c\":true,\"d\":false}\r\n\t", 0}, {"{\"a\":9007199254740992}", 0},
        {"{\"\\u00e9\\ud83d\\ude00\":\"\\\"\\\\\\/\\b\\f\\n\\r\\t\"}", 0}, {"{\"a\":\"\xf0\x9f\x98\x80\xed\x9f\xbf\xee\x80\x80\"}", 0},
        {"{\"a\":1,\"A\":2}", 0}, {"{\"a\":{\"b\":1},\"b\":{\"b\":1}}", 0},
        {"[]", 45}, {"1", 45}, {"null", 45}, {"\"a\"", 45}, {"", 46}, {" ", 46}, {"{", 46}, {"{\"a\"", 46}, {"{\"a\":", 46},
        {"{\"a\":1", 46}, {"{\"a\":1,}", 46}, {"{,}", 46}, {"{\"a\":[1,]}", 46}, {"{\"a\":[1 2]}", 46}, {"{a:1}", 46}, {"{'a':1}", 46},
        {"{} x", 46}, {"{}{}", 46}, {"{\"a\":\"\\u0000\"}", 46}, {"{\"a\\u0000\":1}", 46}, {"{\"a\":\"\\ud800\"}", 46},
        {"{\"a\":\"\\ud800\\u0041\"}", 46}, {"{\"a\":\"\\udc00\"}", 46}, {"{\"a\":\"\\u12g4\"}", 46}, {"{\"a\":\"\\x\"}", 46},
        {"{\"a\":\"\n\"}", 46}, {"{\"a\":\"\xc0\xaf\"}", 46}, {"{\"a\":\"\xe0\x80\xaf\"}", 46}, {"{\"a\":\"\xed\xa0\x80\"}", 46},
        {"{\"a\":\"\xf4\x90\x80\x80\"}", 46}, {"{\"a\":\"\xf5\x80\x80\x80\"}", 46}, {"{\"a\":\"\xff\"}", 46}, {"{\"a\":\"\xe2\x82\"}", 46},
        {"\xef\xbb\xbf{}", 46}, {"\x0b{}", 46}, {"{\"a\":1,\"a\":2}", 46}, {"{\"a\":1,\"\\u0061\":2}", 46},
        {"{\"x\":[{\"q\":{\"a\":1,\"b\":2,\"a\":3}}]}", 46}, {"{\"a\":-0}", 46}, {"{\"a\":1.5}", 46}, {"{\"a\":1e3}", 46}, {"{\"a\":1E3}", 46},
        {"{\"a\":1.}", 46}, {"{\"a\":.5}", 46}, {"{\"a\":007}", 46}, {"{\"a\":-}", 46}, {"{\"a\":+1}", 46}, {"{\"a\":9007199254740993}", 46},
        {"{\"a\":18446744073709551616}", 46}, {"{\"a\":9223372036854775808}", 46}, {"{\"a\":1e999}", 46}, {"{\"a\":0x10}", 46},
        {"{\"a\":NaN}", 46}, {"{\"a\":Infinity}", 46}, {"{\"a\":nul}", 46}, {"{\"a\":truefalse}", 46}, {"{/**/}", 46},
        {"{\"a\":[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]}", 0}, {"{\"a\":[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]}", 46}};
    static char big[1200000];
    size_t i, n;
    for (i = 0; i < HLSNAP_COUNT(rows); i++)
        if (!CHECK_EQ(json(rows[i].text, strlen(rows[i].text)), rows[i].code)) printf("#   %s\n", rows[i].text);
    CHECK_EQ(json("{\"a\":\"x\0y\"}", 11), HLSNAP_ERR_JSON);
    CHECK_EQ(json("{}\0", 3), HLSNAP_ERR_JSON);
    memset(big, '[', sizeof(big));
    CHECK_EQ(json(big, 1000), HLSNAP_ERR_JSON);
    CHECK_EQ(json(big, 100000), HLSNAP_ERR_JSON);
    n = (size_t)sprintf(big, "{\"a\":[0");
    for (i = 0; i < HLSNAP__JSON_NODES - 3; i++) n += (size_t)sprintf(big + n, ",0");
    strcpy(big + n, "]}");
    CHECK_EQ(json(big, n + 2), HLSNAP_OK); /* the cap itself */
    strcpy(big + n, ",0]}");
    CHECK_EQ(json(big, n + 4), HLSNAP_ERR_JSON);
    n = (size_t)sprintf(big, "{");
    for (i = 0; i < 100000; i++) n += (size_t)sprintf(big + n, "\"%05zu\":0,", i); /* many names, compared quickly */
    strcpy(big + n - 1, ",\"00000\":0}");
    CHECK_EQ(json(big, strlen(big)), HLSNAP_ERR_JSON);
    big[strlen(big) - 5] = 'x';
    CHECK_EQ(json(big, strlen(big)), HLSNAP_OK);
}

static void utf8_exhaustive(void) { /* every pair and lead of three bytes against a decoder written the other way round */
    uint32_t c, bad = 0;
    for (c = 0; c < 0x1000000u; c++) {
        unsigned char p[4];
        uint32_t v;
        size_t want = 0, n;
        p[0] = (unsigned char)(c >> 16);
        p[1] = (unsigned char)(c >> 8);
        p[2] = (unsigned char)c;
        p[3] = 0x80;
        if (p[0] < 0x80) want = 1;
        else if ((p[0] & 0xe0) == 0xc0 && (p[1] & 0xc0) == 0x80) want = (p[0] & 0x1fu) >= 2 ? 2 : 0;
        else if ((p[0] & 0xf0) == 0xe0 && (p[1] & 0xc0) == 0x80 && (p[2] & 0xc0) == 0x80) {
            v = (p[0] & 15u) << 12 | (p[1] & 63u) << 6 | (p[2] & 63u);
            want = v >= 0x800 && (v < 0xd800 || v > 0xdfff) ? 3 : 0;
        } else if ((p[0] & 0xf8) == 0xf0 && (p[1] & 0xc0) == 0x80 && (p[2] & 0xc0) == 0x80) {
            v = (p[0] & 7u) << 18 | (p[1] & 63u) << 12 | (p[2] & 63u) << 6;
            want = v >= 0x10000 && v <= 0x10ffff ? 4 : 0;
        }
        n = hlsnap__json_utf8(p, 4);
        bad += n != want;
        if (want > 1) bad += hlsnap__json_utf8(p, want - 1) != 0;
    }
    CHECK_EQ(bad, 0);
}

/* ---- round trips ---- */

static void round_trip(void) {
    static const hlsnap_oci_guard guards[] = {HLSNAP_OCI_GUARD_DEFAULT, HLSNAP_OCI_GUARD_PRIVATE, HLSNAP_OCI_GUARD_NONE};
    const char *dir = fresh();
    hlsnap_snapshot *s = snapshot_new(1), *t;
    hlsnap_snapshot_info info;
    hlsnap_oci_digest digest;
    char d1[72] = "", d2[72] = "";
    int i;
    if (!CHECK_EQ(save(dir, "v1", s, d1), 0)) printf("# %s\n", err.msg);
    CHECK(tidy(dir));
    CHECK(sums_right(dir));
    for (i = 0; i < 6; i++) {
        hlsnap_oci_desc desc = HLSNAP_ZERO;
        desc.guard = guards[i / 2];
        desc.disable_verify = i % 2;
        desc.threads = 4;
        if (!CHECK_EQ(hlsnap_oci_load(dir, i & 1 ? d1 : "v1", &desc, &t, &digest, &err), 0)) {
            printf("# %s\n", err.msg);
            continue;
        }
        CHECK_STR(digest.text, d1);
        CHECK_EQ(t->guard, i / 2 == 2 ? HLSNAP_OCI_GUARD_NONE : HLSNAP_OCI_GUARD_PRIVATE);
        if (i / 2 == 2) CHECK(!t->layers[0]->sealed);
        else if (t->layers[0]->sealed) /* else a clone: test_clone */
            CHECK_EQ(fcntl(t->layers[0]->fd, F_GET_SEALS) & 15, F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE);
        hlsnap_snapshot_get_info(t, &info);
        CHECK_EQ(info.stored_pages, 42); /* of 43: one is zero */
        CHECK_EQ(info.layers, 1);
        check_same(s, t);
        CHECK_EQ(save(dir, "again", t, d2), 0); /* a loaded snapshot saves to the same bytes */
        check_same(s, t);                       /* and is what it was */
        CHECK_STR(d1, d2);
        hlsnap_snapshot_release(t);
    }
    hlsnap_snapshot_release(s);
}

static void reproducible(void) {
    const char *a = fresh(), *b = fresh();
    hlsnap_snapshot *s = snapshot_new(2), *other = snapshot_new(3);
    char d1[72], d2[72], d3[72];
    CHECK_EQ(save(a, "x", s, d1), 0);
    CHECK_EQ(save(a, "y", s, d2), 0);
    CHECK_STR(d1, d2);
    CHECK_EQ(save(b, "z", s, d2), 0);
    CHECK_STR(d1, d2);
    CHECK_EQ(save(b, "z", other, d3), 0);
    CHECK(strcmp(d1, d3) != 0);
    CHECK_EQ(sh("[ $(ls %s/blobs/sha256 | wc -l) = 4 ]", a), 0); /* shared by both tags */
    hlsnap_snapshot_release(s);
    hlsnap_snapshot_release(other);
}

static void modes_and_umask(void) {
    hlsnap_snapshot *s = snapshot_new(4);
    int i;
    for (i = 0; i < 2; i++) {
        const char *dir = fresh();
        mode_t old = umask(i ? 077 : 0);
        CHECK_EQ(save(dir, "x", s, NULL), 0);
        umask(old);
        CHECK_EQ(sh("! find %s -type f ! -perm 0600 | grep . && ! find %s -type d ! -perm 0700 | grep .", dir, dir), 0);
        CHECK_EQ(sh("chmod 0644 %s/index.json", dir), 0);
        CHECK_EQ(save(dir, "y", s, NULL), 0); /* an index that others may read stays so */
        CHECK_EQ(sh("[ $(stat -c %%a %s/index.json) = 644 ]", dir), 0);
    }
    hlsnap_snapshot_release(s);
}

static void zero_guest(void) {
    static const hlsnap__extent e[] = {{20, 1, 0, 0}};
    const char *dir = fresh();
    hlsnap_snapshot *none, *zeros, *t;
    hlsnap__guest *g = guest_new();
    char d1[72] = "", d2[72] = "";
    CHECK_EQ(hlsnap__snapshot_create(g, 7, NULL, 0, NULL, 0, &none, NULL), 0);
    hlsnap__guest_release(g);
    zeros = snapshot_over(guest_new(), layer_new(1, 1, 0), NULL, e, 1);
    CHECK_EQ(save(dir, "none", none, d1), 0);
    CHECK_EQ(save(dir, "zeros", zeros, d2), 0);
    CHECK_STR(d1, d2);
    CHECK_EQ(hlsnap_oci_load(dir, "none", NULL, &t, NULL, &err), 0);
    if (t) check_same(none, t);
    if (t) CHECK_EQ(save(dir, "again", t, d2), 0);
    CHECK_STR(d1, d2);
    hlsnap_snapshot_release(t);
    hlsnap_snapshot_release(none);
    hlsnap_snapshot_release(zeros);
}

static void bare_contract(void) { /* no functions, no features, no TLS, no module, no name */
    static const hlsnap__extent e[] = {{0, 3, 0, 0}};
    const char *dir = fresh();
    hlsnap_snapshot *s = snapshot_over(guest_new(), layer_new(3, 1, 9), NULL, e, 1), *t;
    hlsnap__guest *g = s->guest;
    g->contract.num_exports = g->contract.num_imports = 0;
    g->features = g->module = g->tls_size = 0;
    g->name[0] = g->build_id[0] = g->cpu_vendor[0] = g->hypervisor[0] = 0;
    g->id = hlsnap__guest_id(g);
    s->generation = INT64_MAX;
    CHECK_EQ(save(dir, "x", s, NULL), 0);
    CHECK_EQ(hlsnap_oci_load(dir, "x", NULL, &t, NULL, &err), 0);
    if (t) check_same(s, t);
    hlsnap_snapshot_release(t);
    strcpy(g->name, "a\xff\x01" "b\x7f\xc0\xaf"); /* a file name need not be text */
    CHECK_EQ(save(dir, "y", s, NULL), 0);
    CHECK_EQ(hlsnap_oci_load(dir, "y", NULL, &t, NULL, &err), 0);
    if (t) CHECK_STR(t->guest->name, "a__b___");
    hlsnap_snapshot_release(t);
    s->generation++;
    CHECK_EQ(save(dir, "z", s, NULL), HLSNAP_ERR_LIMIT);
    hlsnap_snapshot_release(s);
}

static hlsnap_snapshot *sparse_snapshot(uint32_t pages, uint32_t step, uint32_t run) {
    hlsnap__guest *g = guest_new();
    hlsnap__extent *e = (hlsnap__extent *)calloc(pages, sizeof(*e));
    hlsnap_snapshot *s;
    uint32_t i, num = 0;
    for (i = 3; i < 8; i++) g->layout.regions[i].gva += i > 3 ? (uint64_t)(pages - 256) * P : 0; /* a larger heap */
    g->layout.regions[3].pages = pages;
    g->layout.pages += pages - 256;
    CHECK_EQ(hlsnap__guest_check(g, HLSNAP_ERR_CONFIG, &err), 0);
    for (i = 0; i + run <= pages; i += step, num++) {
        e[num].page = 16 + i;
        e[num].pages = run;
        e[num].layer_page = num * 3 % 100;
    }
    s = snapshot_over(g, layer_new(120, 5, 999), NULL, e, num);
    free(e);
    return s;
}

static void many_extents(void) { /* more runs than a config may list: gaps are stored, smallest first, until it fits */
    static const struct { uint32_t pages, step, run, want, layer; } rows[] = {
        {40000, 2, 1, 20000, 20000}, {65536, 2, 1, 32768, 32768}, {80000, 2, 1, 32768, 40000 + 7232}, {300000, 4, 2, 32768, 150000 + 2 * 42232}};
    size_t i;
    for (i = 0; i < HLSNAP_COUNT(rows); i++) {
        const char *dir = fresh();
        hlsnap_snapshot *s = sparse_snapshot(rows[i].pages, rows[i].step, rows[i].run), *t;
        if (!CHECK_EQ(save(dir, "x", s, NULL), 0)) printf("# %s\n", err.msg);
        if (CHECK_EQ(hlsnap_oci_load(dir, "x", NULL, &t, NULL, &err), 0)) {
            CHECK_EQ(t->num_extents, rows[i].want);
            CHECK_EQ(t->layers[0]->pages, rows[i].layer);
            check_same(s, t);
        } else printf("# %s\n", err.msg);
        hlsnap_snapshot_release(t);
        hlsnap_snapshot_release(s);
        sh("rm -rf %s", dir);
    }
}

static void gaps_of_many_sizes(void) { /* the larger ones stay, wherever they are, and of equal ones the last */
    const char *dir = fresh();
    hlsnap_snapshot *s = sparse_snapshot(200000, 5, 1), *t;
    uint32_t i, from = 0, wide = 0;
    for (i = 0; i < s->num_extents; i++) { /* 40,000 runs; every third gap is of two pages, the others of three or five */
        s->extents[i].pages = i % 3 == 1 ? 3 : 1;
        if (i % 3 == 0) s->extents[i].page -= i ? 1 : 0;
    }
    CHECK_EQ(save(dir, "x", s, NULL), 0);
    CHECK_EQ(hlsnap_oci_load(dir, "x", NULL, &t, NULL, &err), 0);
    if (t) {
        CHECK_EQ(t->num_extents, 32768);
        check_same(s, t);
        for (i = 0; i < t->num_extents; i++) {
            from += t->extents[i].pages == 6; /* joined: three, two of a gap, one */
            wide += t->extents[i].pages > 6;
        }
        CHECK_EQ(from, 40000 - 32768);
        CHECK_EQ(wide, 0);
    }
    hlsnap_snapshot_release(t);
    hlsnap_snapshot_release(s);
    sh("rm -rf %s", dir);
}

static void full_contract(void) { /* as many and as long functions as there may be fit a config, with many extents */
    const char *dir = fresh();
    hlsnap_snapshot *s = sparse_snapshot(65536, 2, 1), *t;
    hlsnap__contract *c = &s->guest->contract;
    uint32_t i;
    hlsnap__contract_free(c);
    c->num_exports = c->num_imports = HLSNAP_MAX_FUNCTIONS;
    c->exports = (hlsnap__decl *)hlsnap__alloc(HLSNAP_MAX_FUNCTIONS, sizeof(hlsnap__decl), NULL);
    c->imports = (hlsnap__decl *)hlsnap__alloc(HLSNAP_MAX_FUNCTIONS, sizeof(hlsnap__decl), NULL);
    for (i = 0; i < HLSNAP_MAX_FUNCTIONS; i++) {
        char name[80], signature[300] = "bytes(";
        int k;
        snprintf(name, sizeof(name), "f%062u", i);
        for (k = 0; k < 32; k++) strcat(signature, k ? ",bytes" : "bytes");
        strcat(signature, ")");
        decl(&c->exports[i], name, signature);
        decl(&c->imports[i], name, signature);
    }
    s->guest->id = hlsnap__guest_id(s->guest);
    if (!CHECK_EQ(save(dir, "x", s, NULL), 0)) printf("# %s\n", err.msg);
    if (!CHECK_EQ(hlsnap_oci_load(dir, "x", NULL, &t, NULL, &err), 0)) printf("# %s\n", err.msg);
    else check_same(s, t);
    hlsnap_snapshot_release(t);
    hlsnap_snapshot_release(s);
    sh("rm -rf %s", dir);
}

static void large_layer(void) { /* several batches, an odd tail, a snapshot of unsealed layers */
    const char *a = fresh(), *b = fresh();
    static const hlsnap__extent e[] = {{16, 256, 0, 100}, {273, 4, 0, 1000}, {295, 1, 0, 1023}};
    hlsnap__guest *g = guest_new();
    hlsnap_snapshot *s, *t;
    char d1[72], d2[72];
    s = snapshot_over(g, layer_new(1024, 77, 101), NULL, e, 3);
    CHECK_EQ(save(a, "x", s, d1), 0);
    CHECK_EQ(load_with(a, "x", HLSNAP_OCI_GUARD_NONE, false, &t), 0);
    if (t) check_same(s, t);
    CHECK_EQ(save(b, "x", t, d2), 0);
    CHECK_STR(d1, d2);
    CHECK_EQ(sh("truncate -s 4096 $(find %s/blobs -size +500k)", a), 0);
    CHECK_EQ(save(b, "y", t, d2), 0); /* the blob is in b already, so nothing is read */
    CHECK_STR(d1, d2);
    CHECK_EQ(save(fresh(), "y", t, d2), HLSNAP_ERR_CHANGED); /* NONE: a change is an error at worst */
    hlsnap_snapshot_release(t);
    hlsnap_snapshot_release(s);
}

/* ---- arguments, states ---- */

static void arguments(void) {
    static const char *const bad_tags[] = {"", "-a", ".a", "a:b", "a/b", "../x", "a b", "a\n", "\xc3\xa4", "a@b", "a+b",
        "sha256:0123456789012345678901234567890123456789012345678901234567890123x",
        "sha256:ABCDEF0123456789012345678901234567890123456789012345678901234567", "sha256:", "sha512:00"};
    const char *dir = fresh();
    hlsnap_snapshot *s = snapshot_new(5), *t = s;
    hlsnap_oci_desc d = HLSNAP_ZERO;
    char tag[130];
    size_t i;
    for (i = 0; i < HLSNAP_COUNT(bad_tags); i++) {
        CHECK_EQ(save(dir, bad_tags[i], s, NULL), HLSNAP_ERR_ARG);
        /* other tools write any text; what ls shows can be looked up */
        CHECK_EQ(hlsnap_oci_load(dir, bad_tags[i], NULL, &t, NULL, &err), bad_tags[i][0] && strncmp(bad_tags[i], "sha256:", 7) ? HLSNAP_ERR_NOT_FOUND
                                                                                                : HLSNAP_ERR_ARG);
        CHECK(t == NULL);
    }
    memset(tag, 'a', 129);
    tag[129] = 0;
    CHECK_EQ(save(dir, tag, s, NULL), HLSNAP_ERR_ARG);
    CHECK_EQ(hlsnap_oci_save(NULL, "x", s, NULL, NULL, &err), HLSNAP_ERR_ARG);
    CHECK_EQ(hlsnap_oci_save(dir, NULL, s, NULL, NULL, &err), HLSNAP_ERR_ARG);
    CHECK_EQ(hlsnap_oci_save(dir, "x", NULL, NULL, NULL, &err), HLSNAP_ERR_ARG);
    CHECK_EQ(hlsnap_oci_load(NULL, "x", NULL, &t, NULL, &err), HLSNAP_ERR_ARG);
    CHECK_EQ(hlsnap_oci_load(dir, NULL, NULL, &t, NULL, &err), HLSNAP_ERR_ARG);
    CHECK_EQ(hlsnap_oci_load(dir, "x", NULL, NULL, NULL, NULL), HLSNAP_ERR_ARG);
    d._start_canary = 1;
    CHECK_EQ(hlsnap_oci_save(dir, "x", s, &d, NULL, &err), HLSNAP_ERR_ARG);
    CHECK_EQ(hlsnap_oci_load(dir, "x", &d, &t, NULL, &err), HLSNAP_ERR_ARG);
    d._start_canary = 0;
    d._end_canary = 1;
    CHECK_EQ(hlsnap_oci_load(dir, "x", &d, &t, NULL, &err), HLSNAP_ERR_ARG);
    d._end_canary = 0;
    d.prefault = (hlsnap_prefault)2;
    CHECK_EQ(hlsnap_oci_load(dir, "x", &d, &t, NULL, &err), HLSNAP_ERR_ARG);
    CHECK(strstr(err.msg, "prefault=2") != NULL);
    d.prefault = HLSNAP_PREFAULT_OFF;
    d.guard = (hlsnap_oci_guard)5;
    CHECK_EQ(hlsnap_oci_load(dir, "x", &d, &t, NULL, &err), HLSNAP_ERR_ARG);
    s->guest->initialized = false;
    CHECK_EQ(save(dir, "x", s, NULL), HLSNAP_ERR_STATE);
    s->guest->initialized = true;
    s->generation = 1ull << 63;
    CHECK_EQ(save(dir, "x", s, NULL), HLSNAP_ERR_LIMIT);
    CHECK(access(dir, F_OK) != 0); /* nothing of all that touched the disk */
    s->generation = 7;
    tag[128] = 0;
    CHECK_EQ(save(dir, tag, s, NULL), 0);
    CHECK_EQ(loads(dir, tag), 0);
    CHECK_EQ(save(dir, "_", s, NULL), 0);
    CHECK_EQ(save(dir, "Az0_.-", s, NULL), 0);
    CHECK_EQ(loads(dir, "Az0_.-"), 0);
    CHECK_EQ(loads(dir, "az0_.-"), HLSNAP_ERR_NOT_FOUND);
    CHECK(strstr(err.msg, "Az0_.-") == NULL); /* what else is listed is not told */
    CHECK(strncmp(err.msg, "hlsnap_oci_load: ", 17) == 0);
    CHECK_EQ(loads(dir, "sha256:0123456789012345678901234567890123456789012345678901234567890123"), HLSNAP_ERR_NOT_FOUND);
    hlsnap_snapshot_release(s);
}

typedef struct progress { uint64_t last, total, calls, stop; bool backwards; } progress;
static bool on_progress(uint64_t done, uint64_t total, void *user) {
    progress *p = (progress *)user;
    p->backwards |= done < p->last || done > total || (p->total && p->total != total);
    p->last = done;
    p->total = total;
    return ++p->calls != p->stop;
}

static void progress_and_cancel(void) {
    static const hlsnap__extent e[] = {{16, 256, 0, 100}, {273, 4, 0, 1000}};
    const char *dir = fresh(), *old = fresh();
    hlsnap_snapshot *s = snapshot_over(guest_new(), layer_new(1024, 78, 1), NULL, e, 2), *t, *small = snapshot_new(6);
    hlsnap_oci_desc d = HLSNAP_ZERO;
    progress p;
    char *before, first[60000];
    d.progress = on_progress;
    d.user = &p;
    memset(&p, 0, sizeof(p));
    p.stop = 2;
    CHECK_EQ(hlsnap_oci_save(dir, "x", s, &d, NULL, &err), HLSNAP_ERR_CANCELLED);
    CHECK(access(dir, F_OK) != 0); /* nothing left behind */
    CHECK_EQ(save(old, "x", small, NULL), 0);
    strcpy(first, names(old));
    memset(&p, 0, sizeof(p));
    p.stop = 1;
    CHECK_EQ(hlsnap_oci_save(old, "x", s, &d, NULL, &err), HLSNAP_ERR_CANCELLED);
    before = names(old);
    CHECK_STR(before, first);
    memset(&p, 0, sizeof(p));
    CHECK_EQ(hlsnap_oci_save(dir, "x", s, &d, NULL, &err), 0);
    CHECK(!p.backwards && p.last == p.total && p.total == 260 * P);
    memset(&p, 0, sizeof(p));
    CHECK_EQ(hlsnap_oci_load(dir, "x", &d, &t, NULL, &err), 0);
    hlsnap_snapshot_release(t);
    CHECK(!p.backwards && p.last == p.total && p.total == 260 * P && p.calls >= 2);
    p.calls = p.last = 0;
    p.stop = 2;
    CHECK_EQ(hlsnap_oci_load(dir, "x", &d, &t, NULL, &err), HLSNAP_ERR_CANCELLED);
    CHECK(t == NULL);
    hlsnap_snapshot_release(s);
    hlsnap_snapshot_release(small);
}

/* ---- layouts that others wrote or broke: one table ---- */

static char *marker_text, *index_text, *manifest_text, *config_text; /* of the layout at hand, to be edited */
static char memory_digest[72], chunks_digest[72], config_digest[72], manifest_digest[72];
static const char *dir_now;    /* the layout at hand */
static const char *tag_now;    /* what is loaded from it */

/* One occurrence of `from` in *text becomes `to`. */
static void edit(char **text, const char *from, const char *to) {
    char *at = strstr(*text, from), *made;
    if (!CHECK(at != NULL)) {
        printf("#   no %s in %.300s\n", from, *text);
        return;
    }
    made = (char *)malloc(strlen(*text) + strlen(to) + 1);
    sprintf(made, "%.*s%s", (int)(at - *text), *text, to);
    at += strlen(from);
    if (*at == ']' && at > *text && at[-1] == '[' && to[0] && to[strlen(to) - 1] == ',')
        made[strlen(made) - 1] = 0; /* items put before those of a list that has none */
    strcat(made, at);
    free(*text);
    *text = made;
}

/* Stores text as a blob and makes the descriptor of `digest` in *above say so. */
static void relink(char **above, char digest[72], const char *data, size_t n) {
    char old[160], now[160];
    char *at = strstr(*above, digest);
    unsigned long long size = 0;
    if (!CHECK(at && sscanf(at + 71, "\",\"size\":%llu", &size) == 1)) return;
    snprintf(old, sizeof(old), "%s\",\"size\":%llu", digest, size);
    unlink(blob_path(dir_now, digest));
    digest_of(data, n, digest);
    snprintf(now, sizeof(now), "%s\",\"size\":%zu", digest, n);
    put(blob_path(dir_now, digest), data, n);
    edit(above, old, now);
}

static void write_index(void) {
    char path[300];
    snprintf(path, sizeof(path), "%s/index.json", dir_now);
    puts_to(path, index_text);
}
static void write_manifest(void) {
    relink(&index_text, manifest_digest, manifest_text, strlen(manifest_text));
    write_index();
}
static void write_config(void) {
    relink(&manifest_text, config_digest, config_text, strlen(config_text));
    write_manifest();
}

/* Mutations: what the table's rows name. a and b are the row's texts. */
static void on_marker(const char *a, const char *b) {
    char path[300];
    edit(&marker_text, a, b);
    snprintf(path, sizeof(path), "%s/oci-layout", dir_now);
    puts_to(path, marker_text);
}
static void on_index(const char *a, const char *b) { edit(&index_text, a, b), write_index(); }
static void on_manifest(const char *a, const char *b) { edit(&manifest_text, a, b), write_manifest(); }
static void on_config(const char *a, const char *b) { edit(&config_text, a, b), write_config(); }
static void whole(char **text, const char *b) {
    free(*text);
    *text = strdup(b);
}
static void whole_marker(const char *a, const char *b) { (void)a, whole(&marker_text, b), on_marker("", ""); }
static void whole_index(const char *a, const char *b) { (void)a, whole(&index_text, b), write_index(); }
static void whole_manifest(const char *a, const char *b) { (void)a, whole(&manifest_text, b), write_manifest(); }
static void whole_config(const char *a, const char *b) { (void)a, whole(&config_text, b), write_config(); }
static void both_config(const char *a, const char *b) { /* two edits; '|' stands between them */
    char from[300], to[300];
    snprintf(from, sizeof(from), "%.*s", (int)strcspn(a, "|"), a);
    snprintf(to, sizeof(to), "%.*s", (int)strcspn(b, "|"), b);
    edit(&config_text, from, to);
    on_config(strchr(a, '|') + 1, strchr(b, '|') + 1);
}
static void load_ref(const char *a, const char *b) { (void)b, tag_now = a; }
static void member(const char *a, const char *b) { /* member a of the config becomes b; "" = none */
    cJSON *o = cJSON_Parse(config_text);
    CHECK(cJSON_HasObjectItem(o, a));
    if (b[0]) cJSON_ReplaceItemInObjectCaseSensitive(o, a, cJSON_CreateRaw(b));
    else cJSON_DeleteItemFromObjectCaseSensitive(o, a);
    free(config_text);
    config_text = cJSON_PrintUnformatted(o);
    cJSON_Delete(o);
    write_config();
}
static void crowd(char **text, const char *a, const char *b) { /* behind a, b = "times:item", where # is a number that grows */
    int n = atoi(b), i;
    const char *item = strchr(b, ':') + 1, *p;
    char *made = (char *)calloc(1, strlen(a) + (size_t)n * (strlen(item) + 12) + 1), *to;
    strcpy(made, a);
    to = made + strlen(made);
    for (i = 0; i < n; i++)
        for (p = item; *p; p++) {
            if (*p == '#') to += sprintf(to, "%06d", i);
            else *to++ = *p;
        }
    edit(text, a, made);
    free(made);
}
static void crowd_index(const char *a, const char *b) { crowd(&index_text, a, b), write_index(); }
static void crowd_manifest(const char *a, const char *b) { crowd(&manifest_text, a, b), write_manifest(); }
static void crowd_config(const char *a, const char *b) { crowd(&config_text, a, b), write_config(); }
static void shell(const char *a, const char *b) { /* with the names of the blobs */
    (void)b;
    CHECK_EQ(sh("cd %s; M=blobs/sha256/%s C=blobs/sha256/%s J=blobs/sha256/%s N=blobs/sha256/%s; %s", dir_now, memory_digest + 7,
                chunks_digest + 7, config_digest + 7, manifest_digest + 7, a), 0);
}
static void by_digest(const char *a, const char *b) { shell(a, b), tag_now = manifest_digest; }
static void socket_at(const char *a, const char *b) {
    struct sockaddr_un u;
    int fd = socket(AF_UNIX, SOCK_STREAM, 0), here = open(".", O_RDONLY);
    (void)b;
    memset(&u, 0, sizeof(u));
    u.sun_family = AF_UNIX;
    strcpy(u.sun_path, "s");
    CHECK_EQ(chdir(dir_now), 0);
    CHECK_EQ(bind(fd, (struct sockaddr *)&u, sizeof(u)), 0);
    CHECK_EQ(fchdir(here), 0);
    close(here);
    close(fd);
    shell(a, "");
}
static void deep(const char *a, const char *b) { /* an unknown field of the index, nested as often as a says */
    size_t n = (size_t)atoi(a);
    char *text = (char *)calloc(1, n * 2 + 40);
    (void)b;
    strcpy(text, "{\"deep\":");
    memset(text + 8, '[', n);
    memset(text + 8 + n, ']', n);
    strcat(text, ",\"schemaVersion\"");
    on_index("{\"schemaVersion\"", text);
    free(text);
}
static void long_string(const char *a, const char *b) {
    size_t n = (size_t)atoi(a);
    char *text = (char *)calloc(1, n + 40);
    (void)b;
    strcpy(text, "{\"s\":\"");
    memset(text + 6, 'x', n);
    strcpy(text + 6 + n, "\",");
    on_index("{", text);
    free(text);
}
static void utf16(const char *a, const char *b) { shell("iconv -f UTF-8 -t UTF-16 index.json > t && mv t index.json", a), (void)b; }
static void chunk_rehash(const char *a, const char *b) { /* memory changed by a, its own digest made right, not its chunk list */
    char *data;
    size_t n;
    shell(a, b);
    data = get(blob_path(dir_now, memory_digest), &n);
    relink(&manifest_text, memory_digest, data, n);
    write_manifest();
    free(data);
}
static void second_pair(const char *memory, const char *chunks) { /* in the manifest, like the first one but for its digests */
    const char *first = strstr(manifest_text, "[{") + 1, *end = strstr(first, "],\"ann");
    char *from = (char *)calloc(1, strlen(first) + 10), *pair, *twice = (char *)calloc(1, 2 * strlen(first) + 10);
    sprintf(from, "%.*s]", (int)(end - first), first);
    pair = strdup(from);
    edit(&pair, memory_digest, memory);
    edit(&pair, chunks_digest, chunks);
    sprintf(twice, "%.*s,%s", (int)(end - first), first, pair);
    edit(&manifest_text, from, twice);
    free(from), free(pair), free(twice);
}
static void layer_twice(const char *a, const char *b) { (void)a, (void)b, second_pair(memory_digest, chunks_digest), write_manifest(); }
static void two_layers(const char *a, const char *b) { /* a second memory pair, with an `a` in the config too; a -> b there */
    size_t n;
    char *data = get(blob_path(dir_now, memory_digest), &n), memory[72], chunks[72], from[200], to[400];
    uint8_t sums[1024];
    data[0] ^= 1;
    hlsnap__sha256_chunks(hlsnap__sha256_pick(0), (const uint8_t *)data, n, 65536, sums);
    digest_of(data, n, memory);
    digest_of(sums, (n + 65535) / 65536 * 32, chunks);
    put(blob_path(dir_now, memory), data, n);
    put(blob_path(dir_now, chunks), sums, (n + 65535) / 65536 * 32);
    second_pair(memory, chunks);
    if (a[0]) {
        snprintf(from, sizeof(from), "{\"pages\":42,\"chunks\":\"%s\"}", chunks_digest);
        snprintf(to, sizeof(to), "%s,{\"pages\":42,\"chunks\":\"%s\"}", from, chunks);
        edit(&config_text, from, to);
    }
    on_config(a, b);
    free(data);
}
static void copies(const char *a, const char *b) { /* the entry, a times: "digest" entries without a tag, then the tag */
    int n = atoi(a);
    (void)b;
    while (n--) on_index("\"manifests\":[", "\"manifests\":[{\"mediaType\":\"application/xml\",\"digest\":\"sha512:ab\",\"size\":1},");
}
static void permuted(const char *a, const char *b) { /* the same config with its members the other way round */
    cJSON *o = cJSON_Parse(config_text), *n = cJSON_CreateObject(), *c;
    (void)a, (void)b;
    while ((c = o->child) != NULL) {
        while (c->next) c = c->next;
        cJSON_AddItemToObject(n, c->string, cJSON_Duplicate(c, 1));
        cJSON_DeleteItemFromObjectCaseSensitive(o, c->string);
    }
    free(config_text);
    config_text = cJSON_Print(n);
    cJSON_Delete(o);
    cJSON_Delete(n);
    write_config();
}
static void pretty(const char *a, const char *b) {
    cJSON *o = cJSON_Parse(index_text);
    (void)a, (void)b;
    free(index_text);
    index_text = cJSON_Print(o);
    cJSON_Delete(o);
    write_index();
    o = cJSON_Parse(manifest_text);
    free(manifest_text);
    manifest_text = cJSON_Print(o);
    cJSON_Delete(o);
    /* relink needs the compact form of the index, so it is done by hand */
    {
        char old[72];
        memcpy(old, manifest_digest, 72);
        digest_of(manifest_text, strlen(manifest_text), manifest_digest);
        put(blob_path(dir_now, manifest_digest), manifest_text, strlen(manifest_text));
        edit(&index_text, old, manifest_digest);
        char *at = strstr(index_text, "\"size\":"), from[60], to[60];
        snprintf(from, sizeof(from), "%.*s", (int)strcspn(at, ",}\n"), at);
        snprintf(to, sizeof(to), "\"size\":\t%zu", strlen(manifest_text));
        edit(&index_text, from, to);
        write_index();
    }
}

#define HEX0_63 "000000000000000000000000000000000000000000000000000000000000000"
#define HEX0 HEX0_63 "0"
#define TAGGED "\"annotations\":{\"org.opencontainers.image.ref.name\":\"v1\"}"
#define ENTRY0 "{\"mediaType\":\"application/vnd.oci.image.manifest.v1+json\",\"digest\":\"sha256:" HEX0 "\",\"size\":2"
#define MANIFESTS "\"manifests\":["
#define FIRST_EXTENT "[0,4,0,0]"
#define MAPS "\"maps\":["
#define MAP_OF(name, mode, source, gva, size, digest)                                                                                    \
    "{\"name\":" name ",\"mode\":" mode ",\"source\":" source ",\"gva\":" gva ",\"size\":" size ",\"digest\":" digest "}"
#define MAP(name, gva, size) MAP_OF("\"" name "\"", "\"private\"", "\"host\"", "\"" gva "\"", size, "\"\"")
#define MAP_LIKE(mode, source, size) MAP_OF("\"m\"", "\"" mode "\"", "\"" source "\"", "\"0x7f0000000000\"", size, "\"\"")
#define TWO_MAPS(mode, source, size) MAP_LIKE(mode, source, size) "," MAP_OF("\"n\"", "\"" mode "\"", "\"" source "\"", "\"0x7f0000200000\"", size, "\"\"")
#define IN_MAP(page, map) on_config, "[276,1,0,41]],\"maps\":[", "[" page ",1,0,41]],\"maps\":[" map "," /* the last extent moves there */
#define MAPS_16 MAP("a0", "0x7f0000000000", "1") "," MAP("a1", "0x7f0000200000", "1") "," MAP("a2", "0x7f0000400000", "1") ","           \
    MAP("a3", "0x7f0000600000", "1") "," MAP("a4", "0x7f0000800000", "1") "," MAP("a5", "0x7f0000a00000", "1") ","                       \
    MAP("a6", "0x7f0000c00000", "1") "," MAP("a7", "0x7f0000e00000", "1") "," MAP("a8", "0x7f0001000000", "1") ","                       \
    MAP("a9", "0x7f0001200000", "1") "," MAP("b0", "0x7f0001400000", "1") "," MAP("b1", "0x7f0001600000", "1") ","                       \
    MAP("b2", "0x7f0001800000", "1") "," MAP("b3", "0x7f0001a00000", "1") "," MAP("b4", "0x7f0001c00000", "1") ","                       \
    MAP("b5", "0x7f0001e00000", "1") ","
#if defined(__x86_64__)
#define OTHER_ARCH "aarch64"
#else
#define OTHER_ARCH "x86_64"
#endif
enum { OK = 0, BOTH = -1 };
typedef struct hostile { const char *name; void (*mutate)(const char *, const char *); const char *a, *b; int code, unverified; } hostile;

static const hostile table[] = {
    /* nothing wrong */
    {"untouched", on_index, "", "", OK, BOTH},
    /* must accept: seen from real tools */
    {"untagged entries", on_index, MANIFESTS, MANIFESTS ENTRY0 "},", OK, BOTH},
    {"the tag renamed", on_index, TAGGED, "\"annotations\":{\"org.opencontainers.image.ref.name\":\"v2\"}", HLSNAP_ERR_NOT_FOUND, BOTH},
    {"same digest under two tags", shell, "sed -i 's/\\[\\(.*\\)\"v1\"\\(.*\\)\\]/[\\1\"v2\"\\2,\\1\"v1\"\\2]/' index.json && grep -q v2 index.json", "", OK, BOTH},
    {"by digest", by_digest, "", "", OK, BOTH},
    {"by digest, untagged", by_digest, "sed -i 's/\"annotations\":{[^}]*},//' index.json", "", OK, BOTH},
    {"by digest, listed twice", by_digest, "sed -i 's/\\[\\(.*\\)\\]/[\\1,\\1]/' index.json", "", OK, BOTH},
    {"a referrer's entry", on_index, MANIFESTS, MANIFESTS ENTRY0 ",\"annotations\":{\"dev.sigstore.cosign/signature\":\"\"},\"artifactType\":\"application/vnd.dev.cosign.artifact.sig.v1+json\"},", OK, BOTH},
    {"manifests null elsewhere", on_index, "{\"schemaVersion\":2", "{\"x\":{\"manifests\":null},\"schemaVersion\":2", OK, BOTH},
    {"an index of 4000 entries", crowd_index, MANIFESTS, "4000:{\"mediaType\":\"a/b\",\"digest\":\"sha512:#\",\"size\":1,\"annotations\":{\"org.opencontainers.image.ref.name\":\"t\"}},", OK, BOTH},
    {"manifest re-ordered", on_manifest, "\"schemaVersion\":2,\"mediaType\":\"application/vnd.oci.image.manifest.v1+json\",", "\"mediaType\":\"application/vnd.oci.image.manifest.v1+json\",\"schemaVersion\":2,", OK, BOTH},
    {"layers without annotations", on_manifest, ",\"annotations\":{\"org.opencontainers.image.title\":\"layer0.mem\"}", "", OK, BOTH},
    {"1024 imports", crowd_config, "\"imports\":[", "1022:{\"name\":\"f#\",\"signature\":\"void()\"},", OK, BOTH},
    {"extents show a page twice", on_config, FIRST_EXTENT, "[0,2,0,0],[2,2,0,0]", OK, BOTH},
    {"extents that touch", on_config, FIRST_EXTENT, "[0,2,0,0],[2,2,0,2]", OK, BOTH},
    {"mailbox of 65536 pages", both_config, "\"pages\":300|16},{\"kind\":\"tls\",\"gva\":\"0x10127000\",\"pages\":1},{\"kind\":\"identity\",\"gva\":\"0x10128000\"",
     "\"pages\":65816|65536},{\"kind\":\"tls\",\"gva\":\"0x20116000\",\"pages\":1},{\"kind\":\"identity\",\"gva\":\"0x20117000\"", OK, BOTH},
    {"foreign media types first", copies, "5", "", OK, BOTH},
    {"no artifactType on the entry", on_index, ",\"artifactType\":\"application/vnd.hlsnap.snapshot.v1\"", "", OK, BOTH},
    {"crane's artifactType on the entry", on_index, "hlsnap.snapshot.v1\"", "hlsnap.snapshot.config.v1+json\"", OK, BOTH},
    {"no mediaType in index", on_index, "\"mediaType\":\"application/vnd.oci.image.index.v1+json\",", "", OK, BOTH},
    {"no mediaType in manifest", on_manifest, "\"mediaType\":\"application/vnd.oci.image.manifest.v1+json\",", "", OK, BOTH},
    {"no artifactType in manifest", on_manifest, "\"artifactType\":\"application/vnd.hlsnap.snapshot.v1\",", "", OK, BOTH},
    {"annotations everywhere", on_manifest, "\"annotations\":{\"dev", "\"annotations\":{\"a\":\"\",\"\xc3\xa4\":\"x\",\"dev", OK, BOTH},
    {"no annotations in manifest", on_manifest, "\"annotations\":{\"dev.hlsnap.abi\"", "\"x\":{\"dev.hlsnap.abi\"", OK, BOTH},
    {"index annotations", on_index, "{\"schemaVersion\":2", "{\"annotations\":{\"k\":\"v\"},\"schemaVersion\":2", OK, BOTH},
    {"unknown fields in index", on_index, "{\"schemaVersion\":2", "{\"x\":[1,{}],\"schemaVersion\":2", OK, BOTH},
    {"unknown fields in entry", on_index, "\"size\"", "\"sizes\":\"x\",\"platform\":{\"os\":\"linux\"},\"size\"", OK, BOTH},
    {"unknown fields in manifest", on_manifest, "{\"schemaVersion\":2", "{\"x\":null,\"subject\":7,\"schemaVersion\":2", OK, BOTH},
    {"unknown fields in descriptors", on_manifest, "\"config\":{", "\"config\":{\"urls\":[\"http://x/\"],\"data\":\"AAAA\",", OK, BOTH},
    {"pretty-printed", pretty, "", "", OK, BOTH},
    {"config in another order", permuted, "", "", OK, BOTH},
    {"oci-layout with white space", whole_marker, "", " {\n\t\"imageLayoutVersion\" : \"1.0.0\"\n}\r\n", OK, BOTH},
    {"oci-layout with more fields", on_marker, "{", "{\"x\":{\"imageLayoutVersion\":\"2\"},", OK, BOTH},
    {"other names at the root", shell, "mkdir ingest; touch manifest.json .hlsnap-x.tmp ingest/x", "", OK, BOTH},
    {"other names among the blobs", shell, "touch blobs/sha256/x; mkdir blobs/sha512; cp $M blobs/sha256/" HEX0, "", OK, BOTH},
    {"modes 0644 and 0444", shell, "chmod 0444 blobs/sha256/*; chmod 0644 index.json", "", OK, BOTH},
    {"no lock file", shell, "rm .hlsnap.lock", "", OK, BOTH},
    {"layout is a link to a layout", shell, "D=$PWD; cd ..; rm -rf real.d; mv $D real.d; ln -s real.d $D", "", OK, BOTH},
    {"hard link to a blob", shell, "ln $M x", "", OK, BOTH},
    {"digest of any algorithm elsewhere", on_index, MANIFESTS, MANIFESTS "{\"mediaType\":\"a/b\",\"digest\":\"sha512+b64u:a=_-\",\"size\":0},", OK, BOTH},
    {"machine of another make", on_config, "\"AMDisbetter!\"", "\"Genuine  RDC\"", OK, BOTH},
    {"machine unknown", on_config, "\"machine\":{\"cpu_vendor\":\"AMDisbetter!\",\"hypervisor\":\"some_vm-1.0+x\"", "\"machine\":{\"hypervisor\":\"\",\"cpu_vendor\":\"\"", OK, BOTH},
    {"escaped names", on_index, "\"mediaType\":\"application/vnd.oci.image.manifest.v1+json\"",
     "\"mediaTyp\\u0065\":\"application\\/vnd.oci.image.manifest.v1+json\"", OK, BOTH},
    {"the greatest size elsewhere", on_index, MANIFESTS, MANIFESTS "{\"mediaType\":\"a/b\",\"digest\":\"sha512:a\",\"size\":9007199254740992},", OK, BOTH},
    {"depth 15 in an unknown field", deep, "15", "", OK, BOTH},
    {"long string in an unknown field", long_string, "900000", "", OK, BOTH},
    {"generation 2^63-1", on_config, "\"generation\":\"0x7\"", "\"generation\":\"0x7fffffffffffffff\"", OK, BOTH},

    /* file system */
    {"layout missing", shell, "rm -rf $PWD", "", HLSNAP_ERR_NOT_FOUND, BOTH},
    {"layout is a file", shell, "rm -rf $PWD; touch $PWD", "", HLSNAP_ERR_FILE, BOTH},
    {"layout is a FIFO", shell, "rm -rf $PWD; mkfifo $PWD", "", HLSNAP_ERR_FILE, BOTH},
    {"layout is a socket", socket_at, "D=$PWD; cd ..; mv $D/s s.s; rm -rf $D; mv s.s $D", "", HLSNAP_ERR_FILE, BOTH},
    {"layout is a device", shell, "rm -rf $PWD; mknod $PWD c 1 5 2>/dev/null || touch $PWD", "", HLSNAP_ERR_FILE, BOTH},
    {"layout is a link to a file", shell, "mv $PWD/index.json ../i$$; rm -rf $PWD; ln -s i$$ $PWD", "", HLSNAP_ERR_FILE, BOTH},
    {"layout is a dangling link", shell, "rm -rf $PWD; ln -s nowhere $PWD", "", HLSNAP_ERR_FILE, BOTH},
    {"layout is empty", shell, "rm -rf $PWD; mkdir $PWD", "", HLSNAP_ERR_NOT_FOUND, BOTH},
    {"oci-layout missing", shell, "rm oci-layout", "", HLSNAP_ERR_FILE, BOTH},
    {"oci-layout is a directory", shell, "rm oci-layout; mkdir oci-layout", "", HLSNAP_ERR_FILE, BOTH},
    {"oci-layout is a link", shell, "mv oci-layout x; ln -s x oci-layout", "", HLSNAP_ERR_FILE, BOTH},
    {"oci-layout is a FIFO", shell, "rm oci-layout; mkfifo oci-layout", "", HLSNAP_ERR_FILE, BOTH},
    {"oci-layout empty", shell, "truncate -s 0 oci-layout", "", HLSNAP_ERR_JSON, BOTH},
    {"oci-layout of 1 MiB and a byte", shell, "truncate -s 1048577 oci-layout", "", HLSNAP_ERR_LIMIT, BOTH},
    {"index missing", shell, "rm index.json", "", HLSNAP_ERR_FILE, BOTH},
    {"index is a directory", shell, "rm index.json; mkdir index.json", "", HLSNAP_ERR_FILE, BOTH},
    {"index is a FIFO", shell, "rm index.json; mkfifo index.json", "", HLSNAP_ERR_FILE, BOTH},
    {"index is a socket", socket_at, "mv s index.json", "", HLSNAP_ERR_FILE, BOTH},
    {"index is a dangling link", shell, "rm index.json; ln -s nowhere index.json", "", HLSNAP_ERR_FILE, BOTH},
    {"index is a link", shell, "mv index.json x; ln -s x index.json", "", HLSNAP_ERR_FILE, BOTH},
    {"index of 1 GiB", shell, "truncate -s 1G index.json", "", HLSNAP_ERR_LIMIT, BOTH},
    {"index of 1 MiB of NUL", shell, "truncate -s 1048576 index.json", "", HLSNAP_ERR_JSON, BOTH},
    {"index empty", shell, "truncate -s 0 index.json", "", HLSNAP_ERR_JSON, BOTH},
    {"blobs is a link", shell, "mv blobs ../b$$; ln -s ../b$$ blobs", "", HLSNAP_ERR_FILE, BOTH},
    {"blobs missing", shell, "rm -r blobs", "", HLSNAP_ERR_FILE, BOTH},
    {"blobs/sha256 missing", shell, "rm -r blobs/sha256", "", HLSNAP_ERR_FILE, BOTH},
    {"blobs/sha256 is a FIFO", shell, "rm -r blobs/sha256; mkfifo blobs/sha256", "", HLSNAP_ERR_FILE, BOTH},
    {"blobs is a file", shell, "rm -r blobs; touch blobs", "", HLSNAP_ERR_FILE, BOTH},
    {"blobs/sha256 is a link", shell, "mv blobs/sha256 x; ln -s ../x blobs/sha256", "", HLSNAP_ERR_FILE, BOTH},
    {"memory is a link inside", shell, "mv $M x; ln -s ../../x $M", "", HLSNAP_ERR_FILE, BOTH},
    {"memory is a link to /dev/zero", shell, "rm $M; ln -s /dev/zero $M", "", HLSNAP_ERR_FILE, BOTH},
    {"memory is a directory", shell, "rm $M; mkdir $M", "", HLSNAP_ERR_FILE, BOTH},
    {"memory is a FIFO", shell, "rm $M; mkfifo $M", "", HLSNAP_ERR_FILE, BOTH},
    {"memory is a socket", socket_at, "mv s $M", "", HLSNAP_ERR_FILE, BOTH},
    {"memory is a device", shell, "rm $M; { mknod $M c 1 5 && dd if=$M count=0 status=none; } 2>/dev/null || { rm -f $M; mkdir $M; }", "", HLSNAP_ERR_FILE, BOTH},
    {"memory is a dangling link", shell, "rm $M; ln -s nowhere $M", "", HLSNAP_ERR_FILE, BOTH},
    {"memory is a hard link to another file", shell, "rm $M; ln index.json $M", "", HLSNAP_ERR_SIZE, BOTH},
    {"memory missing", shell, "rm $M", "", HLSNAP_ERR_FILE, BOTH},
    {"memory of 0 bytes", shell, "truncate -s 0 $M", "", HLSNAP_ERR_SIZE, BOTH},
    {"memory a byte short", shell, "truncate -s -1 $M", "", HLSNAP_ERR_SIZE, BOTH},
    {"memory a byte long", shell, "truncate -s +1 $M", "", HLSNAP_ERR_SIZE, BOTH},
    {"memory a page long", shell, "truncate -s +4096 $M", "", HLSNAP_ERR_SIZE, BOTH},
    {"memory flipped at its start", shell, "printf '\\377\\001' | dd of=$M conv=notrunc status=none", "", HLSNAP_ERR_DIGEST, OK},
    {"memory flipped at its end", shell, "printf '\\377\\001\\002' | dd of=$M bs=1 seek=172029 conv=notrunc status=none", "", HLSNAP_ERR_DIGEST, OK},
    {"memory changed, and its own digest", chunk_rehash, "printf x | dd of=$M bs=1 seek=100000 conv=notrunc status=none", "", HLSNAP_ERR_DIGEST, OK},
    {"chunk list is a link", shell, "mv $C x; ln -s ../../x $C", "", HLSNAP_ERR_FILE, BOTH},
    {"chunk list is a FIFO", shell, "rm $C; mkfifo $C", "", HLSNAP_ERR_FILE, BOTH},
    {"chunk list is a directory", shell, "rm $C; mkdir $C", "", HLSNAP_ERR_FILE, BOTH},
    {"chunk list is a device", shell, "rm $C; { mknod $C c 1 5 && dd if=$C count=0 status=none; } 2>/dev/null || { rm -f $C; mkdir $C; }", "", HLSNAP_ERR_FILE, BOTH},
    {"chunk list of 0 bytes", shell, "truncate -s 0 $C", "", HLSNAP_ERR_SIZE, BOTH},
    {"chunk list a byte long", shell, "truncate -s +1 $C", "", HLSNAP_ERR_SIZE, BOTH},
    {"chunk list missing", shell, "rm $C", "", HLSNAP_ERR_FILE, BOTH},
    {"chunk list short", shell, "truncate -s -32 $C", "", HLSNAP_ERR_SIZE, BOTH},
    {"chunk list flipped", shell, "printf '\\377\\001' | dd of=$C conv=notrunc status=none", "", HLSNAP_ERR_DIGEST, OK},
    {"config missing", shell, "rm $J", "", HLSNAP_ERR_FILE, BOTH},
    {"config is a link", shell, "mv $J x; ln -s ../../x $J", "", HLSNAP_ERR_FILE, BOTH},
    {"config is a FIFO", shell, "rm $J; mkfifo $J", "", HLSNAP_ERR_FILE, BOTH},
    {"config is a directory", shell, "rm $J; mkdir $J", "", HLSNAP_ERR_FILE, BOTH},
    {"config is a device", shell, "rm $J; { mknod $J c 1 5 && dd if=$J count=0 status=none; } 2>/dev/null || { rm -f $J; mkdir $J; }", "", HLSNAP_ERR_FILE, BOTH},
    {"config of 0 bytes", shell, "truncate -s 0 $J", "", HLSNAP_ERR_SIZE, BOTH},
    {"config a byte long", shell, "echo >> $J", "", HLSNAP_ERR_SIZE, BOTH},
    {"config flipped", shell, "sed -i s/0x7/0x6/ $J", "", HLSNAP_ERR_DIGEST, OK},
    {"config cut", shell, "truncate -s -1 $J", "", HLSNAP_ERR_SIZE, BOTH},
    {"manifest missing", shell, "rm $N", "", HLSNAP_ERR_FILE, BOTH},
    {"manifest is a link", shell, "mv $N x; ln -s ../../x $N", "", HLSNAP_ERR_FILE, BOTH},
    {"manifest is a FIFO", shell, "rm $N; mkfifo $N", "", HLSNAP_ERR_FILE, BOTH},
    {"manifest is a directory", shell, "rm $N; mkdir $N", "", HLSNAP_ERR_FILE, BOTH},
    {"manifest is a device", shell, "rm $N; { mknod $N c 1 5 && dd if=$N count=0 status=none; } 2>/dev/null || { rm -f $N; mkdir $N; }", "", HLSNAP_ERR_FILE, BOTH},
    {"manifest of 0 bytes", shell, "truncate -s 0 $N", "", HLSNAP_ERR_SIZE, BOTH},
    {"manifest a byte short", shell, "truncate -s -1 $N", "", HLSNAP_ERR_SIZE, BOTH},
    {"manifest flipped", shell, "sed -i s/layer0.mem/layer1.mem/ $N", "", HLSNAP_ERR_DIGEST, OK},
    {"manifest long", shell, "echo >> $N", "", HLSNAP_ERR_SIZE, BOTH},

    /* JSON, in place */
    {"JSON truncated", on_index, "}]}", "}]", HLSNAP_ERR_JSON, BOTH},
    {"JSON with a tail", on_index, "}]}", "}]}x", HLSNAP_ERR_JSON, BOTH},
    {"JSON twice", on_index, "}]}", "}]}{}", HLSNAP_ERR_JSON, BOTH},
    {"JSON with BOM", on_index, "{\"sch", "\xef\xbb\xbf{\"sch", HLSNAP_ERR_JSON, BOTH},
    {"JSON in UTF-16", utf16, "", "", HLSNAP_ERR_JSON, BOTH},
    {"JSON overlong UTF-8", on_index, TAGGED, "\"annotations\":{\"a\":\"\xc0\xaf\"}", HLSNAP_ERR_JSON, BOTH},
    {"JSON lone surrogate", on_index, TAGGED, "\"annotations\":{\"a\":\"\\ud800\"}", HLSNAP_ERR_JSON, BOTH},
    {"JSON NUL in tag", on_index, "\"v1\"", "\"v1\\u0000evil\"", HLSNAP_ERR_JSON, BOTH},
    {"JSON NUL in digest", on_index, "\"digest\":\"sha256:", "\"digest\":\"\\u0000sha256:", HLSNAP_ERR_JSON, BOTH},
    {"JSON raw control in tag", on_index, "\"v1\"", "\"v1\n\"", HLSNAP_ERR_JSON, BOTH},
    {"JSON digest twice", on_index, "\"digest\":", "\"digest\":\"sha256:" HEX0 "\",\"digest\":", HLSNAP_ERR_JSON, BOTH},
    {"JSON key twice in config", on_config, "{\"version\":3,", "{\"version\":3,\"version\":3,", HLSNAP_ERR_JSON, BOTH},
    {"JSON key twice in manifest", on_manifest, "{\"schemaVersion\":2,", "{\"schemaVersion\":2,\"schema\\u0056ersion\":2,", HLSNAP_ERR_JSON, BOTH},
    {"JSON depth 16 in an unknown field", deep, "16", "", HLSNAP_ERR_JSON, BOTH},
    {"JSON depth 1000", deep, "1000", "", HLSNAP_ERR_JSON, BOTH},
    {"JSON depth 100000", deep, "100000", "", HLSNAP_ERR_JSON, BOTH},
    {"JSON string of 1 MiB", long_string, "1048576", "", OK, BOTH},
    {"JSON of 262144 values and one", crowd_config, "\"layers\":[", "262144:1,", HLSNAP_ERR_JSON, BOTH},
    {"JSON name twice among 20000", crowd_index, "{\"schemaVersion\":2,", "20000:\"k#\":0,\"K#\":0,\"schema\\u0056ersion\":2,", HLSNAP_ERR_JSON, BOTH},
    {"index is an array", whole_index, "", "[]", HLSNAP_ERR_INDEX, BOTH},
    {"index is a number", whole_index, "", "2", HLSNAP_ERR_INDEX, BOTH},
    {"index is null", whole_index, "", "null", HLSNAP_ERR_INDEX, BOTH},
    {"manifest is an array", whole_manifest, "", "[]", HLSNAP_ERR_MANIFEST, BOTH},
    {"config is an array", whole_config, "", "[]", HLSNAP_ERR_CONFIG, BOTH},
    {"config is no JSON", whole_config, "", "x", HLSNAP_ERR_JSON, BOTH},
    {"manifest is no JSON", whole_manifest, "", "{\"schemaVersion\":2", HLSNAP_ERR_JSON, BOTH},

    /* oci-layout, index */
    {"layout version missing", whole_marker, "", "{}", HLSNAP_ERR_LAYOUT, BOTH},
    {"layout version 2", whole_marker, "", "{\"imageLayoutVersion\":\"2.0.0\"}", HLSNAP_ERR_LAYOUT, BOTH},
    {"layout version a number", whole_marker, "", "{\"imageLayoutVersion\":1}", HLSNAP_ERR_LAYOUT, BOTH},
    {"layout version in capitals", whole_marker, "", "{\"ImageLayoutVersion\":\"1.0.0\"}", HLSNAP_ERR_LAYOUT, BOTH},
    {"layout marker is an array", whole_marker, "", "[\"1.0.0\"]", HLSNAP_ERR_LAYOUT, BOTH},
    {"layout marker is no JSON", whole_marker, "", "1.0.0", HLSNAP_ERR_JSON, BOTH},
    {"index schemaVersion missing", on_index, "\"schemaVersion\":2,", "", HLSNAP_ERR_INDEX, BOTH},
    {"index schemaVersion 1", on_index, "\"schemaVersion\":2", "\"schemaVersion\":1", HLSNAP_ERR_INDEX, BOTH},
    {"index schemaVersion '2'", on_index, "\"schemaVersion\":2", "\"schemaVersion\":\"2\"", HLSNAP_ERR_INDEX, BOTH},
    {"index schemaVersion 2.0", on_index, "\"schemaVersion\":2", "\"schemaVersion\":2.0", HLSNAP_ERR_JSON, BOTH},
    {"index schemaVersion 2.5", on_index, "\"schemaVersion\":2", "\"schemaVersion\":2.5", HLSNAP_ERR_JSON, BOTH},
    {"index of a manifest's mediaType", on_index, "image.index.v1", "image.manifest.v1", HLSNAP_ERR_INDEX, BOTH},
    {"index mediaType a number", on_index, "\"application/vnd.oci.image.index.v1+json\"", "7", HLSNAP_ERR_INDEX, BOTH},
    {"manifests missing", whole_index, "", "{\"schemaVersion\":2}", HLSNAP_ERR_INDEX, BOTH},
    {"manifests null", whole_index, "", "{\"schemaVersion\":2,\"manifests\":null}", HLSNAP_ERR_NOT_FOUND, BOTH},
    {"manifests empty", whole_index, "", "{\"schemaVersion\":2,\"manifests\":[]}", HLSNAP_ERR_NOT_FOUND, BOTH},
    {"manifests an object", whole_index, "", "{\"schemaVersion\":2,\"manifests\":{}}", HLSNAP_ERR_INDEX, BOTH},
    {"entry a number", on_index, MANIFESTS, MANIFESTS "7,", HLSNAP_ERR_INDEX, BOTH},
    {"entry null", on_index, MANIFESTS, MANIFESTS "null,", HLSNAP_ERR_INDEX, BOTH},
    {"tag twice, two digests", on_index, MANIFESTS, MANIFESTS ENTRY0 "," TAGGED "},", HLSNAP_ERR_AMBIGUOUS, BOTH},
    {"tag twice, one digest", shell, "sed -i 's/\\[\\(.*\\)\\]/[\\1,\\1]/' index.json", "", HLSNAP_ERR_AMBIGUOUS, BOTH},
    {"tag with a newline", on_index, "\"v1\"", "\"v1\\n\"", HLSNAP_ERR_NOT_FOUND, BOTH},
    {"annotation key in capitals", on_index, "\"annotations\":", "\"Annotations\":", HLSNAP_ERR_INDEX, BOTH},
    {"tag in capitals", on_index, "\"v1\"", "\"V1\"", HLSNAP_ERR_NOT_FOUND, BOTH},
    {"tag with a blank", on_index, "\"v1\"", "\"v1 \"", HLSNAP_ERR_NOT_FOUND, BOTH},
    {"ref.name in capitals", on_index, "image.ref.name", "image.ref.Name", HLSNAP_ERR_NOT_FOUND, BOTH},
    {"ref.name a number", on_index, "\"v1\"", "7", HLSNAP_ERR_INDEX, BOTH},
    {"ref.name null", on_index, "\"v1\"", "null", HLSNAP_ERR_NOT_FOUND, BOTH},
    {"annotations an array", on_index, TAGGED, "\"annotations\":[\"v1\"]", HLSNAP_ERR_INDEX, BOTH},
    {"annotations with an object", on_index, "\"v1\"", "\"v1\",\"x\":{}", HLSNAP_ERR_INDEX, BOTH},
    {"index annotations with a number", on_index, "{\"schemaVersion\":2", "{\"annotations\":{\"k\":7},\"schemaVersion\":2", HLSNAP_ERR_INDEX, BOTH},
    {"tag on a nested index", on_index, "image.manifest.v1+json", "image.index.v1+json", HLSNAP_ERR_MEDIA_TYPE, BOTH},
    {"tag on a docker manifest", on_index, "vnd.oci.image.manifest.v1+json", "vnd.docker.distribution.manifest.v2+json", HLSNAP_ERR_MEDIA_TYPE, BOTH},
    {"unknown tag", load_ref, "v2", "", HLSNAP_ERR_NOT_FOUND, BOTH},
    {"a tag's prefix", load_ref, "v", "", HLSNAP_ERR_NOT_FOUND, BOTH},
    {"unknown digest", load_ref, "sha256:" HEX0, "", HLSNAP_ERR_NOT_FOUND, BOTH},

    /* descriptors */
    {"mediaType missing", on_index, "{\"mediaType\":\"application/vnd.oci.image.manifest.v1+json\",", "{", HLSNAP_ERR_INDEX, BOTH},
    {"mediaType empty", on_index, "application/vnd.oci.image.manifest.v1+json", "", HLSNAP_ERR_INDEX, BOTH},
    {"mediaType without /", on_index, "application/vnd.oci.image.manifest.v1+json", "application", HLSNAP_ERR_INDEX, BOTH},
    {"mediaType with parameters", on_index, "image.manifest.v1+json", "image.manifest.v1+json; q=1", HLSNAP_ERR_INDEX, BOTH},
    {"mediaType of two slashes", on_index, "image.manifest.v1+json", "image/manifest.v1+json", HLSNAP_ERR_INDEX, BOTH},
    {"mediaType of 127 letters", on_index, "[{\"mediaType\":\"application/", "[{\"mediaType\":\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa/", HLSNAP_ERR_MEDIA_TYPE, BOTH},
    {"mediaType of 128 letters", on_index, "[{\"mediaType\":\"application/", "[{\"mediaType\":\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa/", HLSNAP_ERR_INDEX, BOTH},
    {"digest missing", on_index, "\"digest\"", "\"Digest\"", HLSNAP_ERR_INDEX, BOTH},
    {"digest a number", on_manifest, "\"config\":{", "\"config\":{\"size\":1,\"mediaType\":\"a/b\",\"digest\":7},\"old\":{", HLSNAP_ERR_MANIFEST, BOTH},
    {"digest walks up", on_index, "\"digest\":\"sha256:", "\"digest\":\"sha256:../../../etc/passwd", HLSNAP_ERR_INDEX, BOTH},
    {"digest with a slash", on_manifest, "\"config\":{", "\"config\":{\"size\":1,\"mediaType\":\"a/b\",\"digest\":\"sha256:/\"},\"old\":{", HLSNAP_ERR_MANIFEST, BOTH},
    {"digest with %2f", on_index, "\"digest\":\"sha256:", "\"digest\":\"sha256:%2f", HLSNAP_ERR_INDEX, BOTH},
    {"digest with a backslash", on_index, "\"digest\":\"sha256:", "\"digest\":\"sha256:..\\\\", HLSNAP_ERR_INDEX, BOTH},
    {"digest with a newline", on_manifest, "\"config\":{", "\"config\":{\"size\":1,\"mediaType\":\"a/b\",\"digest\":\"sha256:" HEX0 "\\n\"},\"old\":{", HLSNAP_ERR_MANIFEST, BOTH},
    {"digest of capitals", on_manifest, "\"config\":{", "\"config\":{\"size\":1,\"mediaType\":\"a/b\",\"digest\":\"sha256:A" HEX0_63 "\"},\"old\":{", HLSNAP_ERR_MANIFEST, BOTH},
    {"digest too short", on_manifest, "\"config\":{", "\"config\":{\"size\":1,\"mediaType\":\"a/b\",\"digest\":\"sha256:" HEX0_63 "\"},\"old\":{", HLSNAP_ERR_MANIFEST, BOTH},
    {"digest of an algorithm that is well formed but not ours", on_manifest, "\"config\":{\"mediaType\":\"application/vnd.hlsnap.snapshot.config.v1+json\",\"digest\":\"sha256:", "\"config\":{\"mediaType\":\"application/vnd.hlsnap.snapshot.config.v1+json\",\"size\":2,\"digest\":\"sha512:00\"},\"x\":{\"digest\":\"sha256:", HLSNAP_ERR_MANIFEST, BOTH},
    {"memory digest walks up", on_manifest, "memory.v1\",\"digest\":\"sha256:", "memory.v1\",\"digest\":\"sha256:../../../", HLSNAP_ERR_MANIFEST, BOTH},
    {"chunk list digest walks up", on_manifest, "chunks.v1\",\"digest\":\"sha256:", "chunks.v1\",\"digest\":\"sha256:../../../", HLSNAP_ERR_MANIFEST, BOTH},
    {"digest too long", on_index, "\"digest\":\"sha256:", "\"digest\":\"sha256:0", HLSNAP_ERR_INDEX, BOTH},
    {"digest sha512", on_index, "\"digest\":\"sha256:", "\"digest\":\"sha512:", HLSNAP_ERR_INDEX, BOTH},
    {"digest md5", on_index, "\"digest\":\"sha256:", "\"digest\":\"md5:", HLSNAP_ERR_INDEX, BOTH},
    {"digest without algorithm", on_index, "\"digest\":\"sha256:", "\"digest\":\":", HLSNAP_ERR_INDEX, BOTH},
    {"digest SHA256", on_index, "\"digest\":\"sha256:", "\"digest\":\"SHA256:", HLSNAP_ERR_INDEX, BOTH},
    {"size missing", on_index, "\"size\"", "\"Size\"", HLSNAP_ERR_INDEX, BOTH},
    {"size a string", on_index, "\"size\":", "\"size\":\"1\",\"s\":", HLSNAP_ERR_INDEX, BOTH},
    {"size true", on_index, "\"size\":", "\"size\":true,\"s\":", HLSNAP_ERR_INDEX, BOTH},
    {"size null", on_index, "\"size\":", "\"size\":null,\"s\":", HLSNAP_ERR_INDEX, BOTH},
    {"size -1", on_index, "\"size\":", "\"size\":-1,\"s\":", HLSNAP_ERR_INDEX, BOTH},
    {"size 0", on_index, "\"size\":", "\"size\":0,\"s\":", HLSNAP_ERR_INDEX, BOTH},
    {"size 1.5", on_index, "\"size\":", "\"size\":1.5,\"s\":", HLSNAP_ERR_JSON, BOTH},
    {"size 1e3", on_index, "\"size\":", "\"size\":1e3,\"s\":", HLSNAP_ERR_JSON, BOTH},
    {"size 007", on_index, "\"size\":", "\"size\":007,\"s\":", HLSNAP_ERR_JSON, BOTH},
    {"size -0", on_index, "\"size\":", "\"size\":-0,\"s\":", HLSNAP_ERR_JSON, BOTH},
    {"size 2^53+1", on_index, "\"size\":", "\"size\":9007199254740993,\"s\":", HLSNAP_ERR_JSON, BOTH},
    {"size 2^64", on_index, "\"size\":", "\"size\":18446744073709551616,\"s\":", HLSNAP_ERR_JSON, BOTH},
    {"size 2^63-1", on_index, "\"size\":", "\"size\":9223372036854775807,\"s\":", HLSNAP_ERR_JSON, BOTH},
    {"size of 400 digits", crowd_index, "\"size\":", "400:9", HLSNAP_ERR_JSON, BOTH},
    {"size 2^53", on_index, "\"size\":", "\"size\":9007199254740992,\"s\":", HLSNAP_ERR_INDEX, BOTH},
    {"size of a manifest beyond 1 MiB", on_index, "\"size\":", "\"size\":1048577,\"s\":", HLSNAP_ERR_INDEX, BOTH},
    {"size one off", on_index, "\"size\":", "\"size\":1,\"s\":", HLSNAP_ERR_SIZE, BOTH},

    /* manifest */
    {"manifest schemaVersion missing", on_manifest, "\"schemaVersion\":2,", "", HLSNAP_ERR_MANIFEST, BOTH},
    {"manifest schemaVersion 1", on_manifest, "\"schemaVersion\":2", "\"schemaVersion\":1", HLSNAP_ERR_MANIFEST, BOTH},
    {"manifest of an index's mediaType", on_manifest, "image.manifest.v1", "image.index.v1", HLSNAP_ERR_MANIFEST, BOTH},
    {"config missing in manifest", on_manifest, "\"config\":{", "\"Config\":{", HLSNAP_ERR_MANIFEST, BOTH},
    {"config an array in manifest", on_manifest, "\"config\":{", "\"config\":[],\"x\":{", HLSNAP_ERR_MANIFEST, BOTH},
    {"a container image", on_manifest, "vnd.hlsnap.snapshot.config.v1+json", "vnd.oci.image.config.v1+json", HLSNAP_ERR_MEDIA_TYPE, BOTH},
    {"config of a newer type", on_manifest, "snapshot.config.v1+json", "snapshot.config.v2+json", HLSNAP_ERR_MEDIA_TYPE, BOTH},
    {"artifactType foreign", on_manifest, "\"artifactType\":\"application/vnd.hlsnap.snapshot.v1", "\"artifactType\":\"application/x", HLSNAP_ERR_MEDIA_TYPE, BOTH},
    {"artifactType a number", on_manifest, "\"artifactType\":", "\"artifactType\":7,\"x\":", HLSNAP_ERR_MEDIA_TYPE, BOTH},
    {"config size 0", on_manifest, "\"config\":{", "\"config\":{\"mediaType\":\"application/vnd.hlsnap.snapshot.config.v1+json\",\"digest\":\"sha256:" HEX0 "\",\"size\":0},\"x\":{", HLSNAP_ERR_MANIFEST, BOTH},
    {"config beyond 1 MiB", on_manifest, "\"config\":{", "\"config\":{\"mediaType\":\"application/vnd.hlsnap.snapshot.config.v1+json\",\"digest\":\"sha256:" HEX0 "\",\"size\":1048577},\"x\":{", HLSNAP_ERR_MANIFEST, BOTH},
    {"layers missing", on_manifest, "\"layers\":", "\"Layers\":", HLSNAP_ERR_MANIFEST, BOTH},
    {"layers an object", on_manifest, "\"layers\":", "\"layers\":{},\"x\":", HLSNAP_ERR_MANIFEST, BOTH},
    {"no layers", on_manifest, "\"layers\":", "\"layers\":[],\"x\":", HLSNAP_ERR_MANIFEST, BOTH},
    {"unknown layer type", on_manifest, "snapshot.memory.v1", "snapshot.memory.v1+zstd", HLSNAP_ERR_MANIFEST, BOTH},
    {"two chunk lists", on_manifest, "snapshot.memory.v1", "snapshot.chunks.v1", HLSNAP_ERR_MANIFEST, BOTH},
    {"two memory layers", on_manifest, "snapshot.chunks.v1", "snapshot.memory.v1", HLSNAP_ERR_MANIFEST, BOTH},
    {"layer an entry of text", on_manifest, "\"layers\":[", "\"layers\":[\"x\",\"y\",", HLSNAP_ERR_MANIFEST, BOTH},
    {"memory without a chunk list", on_manifest, ",{\"mediaType\":\"application/vnd.hlsnap.snapshot.chunks.v1\"", "],\"x\":[{\"mediaType\":\"application/vnd.hlsnap.snapshot.chunks.v1\"", HLSNAP_ERR_MANIFEST, BOTH},
    {"a chunk list without memory", on_manifest, "\"layers\":[{\"mediaType\":\"application/vnd.hlsnap.snapshot.memory.v1\"", "\"layers\":[],\"x\":[{\"mediaType\":\"application/vnd.hlsnap.snapshot.memory.v1\"", HLSNAP_ERR_MANIFEST, BOTH},
    {"258 layers", crowd_manifest, "\"layers\":[", "256:{},", HLSNAP_ERR_MANIFEST, BOTH},
    {"manifest names itself as memory", shell, "sed -i s/${M##*/}/${N##*/}/ $N", "", HLSNAP_ERR_DIGEST, HLSNAP_ERR_SIZE},
    {"manifest names itself as config", shell, "sed -i s/${J##*/}/${N##*/}/ $N", "", HLSNAP_ERR_DIGEST, HLSNAP_ERR_SIZE},
    {"manifest mediaType a number", on_manifest, "\"mediaType\":\"application/vnd.oci.image.manifest.v1+json\"", "\"mediaType\":7", HLSNAP_ERR_MANIFEST, BOTH},
    {"memory size over 32 GiB", on_manifest, "\"size\":172032", "\"size\":34359742464", HLSNAP_ERR_MANIFEST, BOTH},
    {"three layers", on_manifest, "\"layers\":[", "\"layers\":[{},", HLSNAP_ERR_MANIFEST, BOTH},
    {"memory size not of pages", on_manifest, "\"size\":172032", "\"size\":172033", HLSNAP_ERR_MANIFEST, BOTH},
    {"memory size of another page count", on_manifest, "\"size\":172032", "\"size\":167936", HLSNAP_ERR_CONFIG, BOTH},
    {"memory size 0", on_manifest, "\"size\":172032", "\"size\":0", HLSNAP_ERR_MANIFEST, BOTH},
    {"memory size 2^53", on_manifest, "\"size\":172032", "\"size\":9007199254740992", HLSNAP_ERR_MANIFEST, BOTH},
    {"memory size another list's", on_manifest, "\"size\":172032", "\"size\":262144", HLSNAP_ERR_MANIFEST, BOTH},
    {"chunk list of another length", on_manifest, "\"size\":96,", "\"size\":64,", HLSNAP_ERR_MANIFEST, BOTH},
    {"layer annotations a string", on_manifest, "\"annotations\":{\"org", "\"annotations\":\"x\",\"x\":{\"org", HLSNAP_ERR_MANIFEST, BOTH},
    {"manifest annotations a list", on_manifest, "\"annotations\":{\"dev", "\"annotations\":[],\"x\":{\"dev", HLSNAP_ERR_MANIFEST, BOTH},
    {"one blob as two layers", layer_twice, "", "", HLSNAP_ERR_MANIFEST, BOTH},
    {"a layer that nothing uses", two_layers, "\"layers\":[", "\"layers\":[", HLSNAP_ERR_CONFIG, BOTH},
    {"a layer more than the config says", two_layers, "", "", HLSNAP_ERR_CONFIG, BOTH},
    {"two layers, both used", two_layers, "\"extents\":[" FIRST_EXTENT, "\"extents\":[[0,4,1,3]", OK, BOTH},

    /* config: form */
    {"config unknown field", on_config, "{\"version\":3", "{\"x\":0,\"version\":3", HLSNAP_ERR_CONFIG, BOTH},
    {"config unknown field in guest", on_config, "\"guest\":{", "\"guest\":{\"x\":0,", HLSNAP_ERR_CONFIG, BOTH},
    {"config unknown field in window", on_config, "\"window\":{", "\"window\":{\"x\":0,", HLSNAP_ERR_CONFIG, BOTH},
    {"config unknown field in region", on_config, "{\"kind\":\"text\"", "{\"flags\":7,\"kind\":\"text\"", HLSNAP_ERR_CONFIG, BOTH},
    {"config unknown field in export", on_config, "{\"name\":\"twice\"", "{\"fn\":7,\"name\":\"twice\"", HLSNAP_ERR_CONFIG, BOTH},
    {"config field in capitals", on_config, "\"entry\"", "\"Entry\"", HLSNAP_ERR_CONFIG, BOTH},
    {"config without module", on_config, "\"module\":\"0x10004040\",", "", HLSNAP_ERR_CONFIG, BOTH},
    {"config without library", on_config, "\"library\":\"" HLSNAP_VERSION_STRING "\",", "", HLSNAP_ERR_CONFIG, BOTH},
    {"config without generation", on_config, "\"generation\":\"0x7\",", "", HLSNAP_ERR_CONFIG, BOTH},
    {"config without imports", member, "imports", "", HLSNAP_ERR_CONFIG, BOTH},
    {"config without extents", on_config, "\"extents\":", "\"x\":", HLSNAP_ERR_CONFIG, BOTH},
    {"config library a number", on_config, "\"library\":\"" HLSNAP_VERSION_STRING "\"", "\"library\":1", HLSNAP_ERR_CONFIG, BOTH},
    {"config library with control characters", on_config, "\"library\":\"", "\"library\":\"\\u001b[2J", HLSNAP_ERR_CONFIG, BOTH},
    {"config name of 64 bytes", on_config, "\"name\":\"g", "\"name\":\"0123456789012345678901234567890123456789012345678901234567890123", HLSNAP_ERR_CONFIG, BOTH},
    {"config name with an escape", on_config, "\"name\":\"g", "\"name\":\"\\u001b[2J", HLSNAP_ERR_CONFIG, BOTH},
    {"config guest a string", member, "guest", "\"x\"", HLSNAP_ERR_CONFIG, BOTH},
    {"config build_id not hex", on_config, "\"build_id\":\"0", "\"build_id\":\"G", HLSNAP_ERR_CONFIG, BOTH},
    {"config without machine", on_config, "\"machine\":{", "\"engine\":{", HLSNAP_ERR_CONFIG, BOTH},
    {"config machine a string", member, "machine", "\"x\"", HLSNAP_ERR_CONFIG, BOTH},
    {"config unknown field in machine", on_config, "\"machine\":{", "\"machine\":{\"x\":0,", HLSNAP_ERR_CONFIG, BOTH},
    {"config machine.cpu_vendor a number", on_config, "\"AMDisbetter!\"", "0", HLSNAP_ERR_CONFIG, BOTH},
    {"config machine.cpu_vendor of 13 bytes", on_config, "\"AMDisbetter!\"", "\"AMDisbetter!!\"", HLSNAP_ERR_CONFIG, BOTH},
    {"config machine.cpu_vendor with a quote", on_config, "\"AMDisbetter!\"", "\"AMD\\\"\"", HLSNAP_ERR_CONFIG, BOTH},
    {"config machine.hypervisor with <", on_config, "\"some_vm-1.0+x\"", "\"<b>\"", HLSNAP_ERR_CONFIG, BOTH},
    {"config machine.hypervisor of 32 bytes", on_config, "\"some_vm-1.0+x\"", "\"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\"", HLSNAP_ERR_CONFIG, BOTH},
    {"config build_id of 48 digits", on_config, "\"build_id\":\"0", "\"build_id\":\"012345678", HLSNAP_ERR_CONFIG, BOTH},
    {"config entry a number", on_config, "\"entry\":\"0x10000123\"", "\"entry\":268435747", HLSNAP_ERR_CONFIG, BOTH},
    {"config hex in capitals", on_config, "\"0xffffffffffff0000\"", "\"0xFFFFFFFFFFFF0000\"", HLSNAP_ERR_CONFIG, BOTH},
    {"config hex of 17 digits", on_config, "\"0xffffffffffff0000\"", "\"0xfffffffffffff0000\"", HLSNAP_ERR_CONFIG, BOTH},
    {"config hex with a zero", on_config, "\"0x10000123\"", "\"0x010000123\"", HLSNAP_ERR_CONFIG, BOTH},
    {"config hex without 0x", on_config, "\"0x10000123\"", "\"10000123\"", HLSNAP_ERR_CONFIG, BOTH},
    {"config hex of nothing", on_config, "\"0x10000123\"", "\"0x\"", HLSNAP_ERR_CONFIG, BOTH},
    {"config hex with a sign", on_config, "\"0x10000123\"", "\"0x-1\"", HLSNAP_ERR_CONFIG, BOTH},

    /* config: identity */
    {"version newer, unknown fields", on_config, "{\"version\":3", "{\"new\":[],\"version\":4", HLSNAP_ERR_VERSION, BOTH},
    {"version newer, no abi", on_config, "{\"version\":3,\"abi\":2", "{\"version\":4", HLSNAP_ERR_VERSION, BOTH},
    {"abi newer, unknown fields, no arch", on_config, "\"abi\":2,\"arch\":\"" HLSNAP__OCI_ARCH "\"", "\"abi\":3,\"x\":0", HLSNAP_ERR_VERSION, BOTH},
    {"version a string", on_config, "{\"version\":3", "{\"version\":\"1\"", HLSNAP_ERR_CONFIG, BOTH},
    {"version -1", on_config, "{\"version\":3", "{\"version\":-1", HLSNAP_ERR_CONFIG, BOTH},
    {"abi newer", on_config, "\"abi\":2", "\"abi\":3", HLSNAP_ERR_VERSION, BOTH},
    {"abi older", on_config, "\"abi\":2", "\"abi\":1", HLSNAP_ERR_VERSION, BOTH},
    {"version older, which has no maps", both_config, "{\"version\":3|,\"maps\":[]", "{\"version\":2|", HLSNAP_ERR_VERSION, BOTH},
    {"arch of another machine", on_config, "\"arch\":\"" HLSNAP__OCI_ARCH "\"", "\"arch\":\"" OTHER_ARCH "\"", HLSNAP_ERR_ARCH, BOTH},
    {"arch unknown", on_config, "\"arch\":\"" HLSNAP__OCI_ARCH "\"", "\"arch\":\"" HLSNAP__OCI_ARCH " \"", HLSNAP_ERR_ARCH, BOTH},
    {"arch a number", on_config, "\"arch\":\"" HLSNAP__OCI_ARCH "\"", "\"arch\":64", HLSNAP_ERR_CONFIG, BOTH},
    {"page size 16384", on_config, "\"page_size\":4096", "\"page_size\":16384", HLSNAP_ERR_ARCH, BOTH},
    {"CPU level unknown", on_config, "\"cpu\":\"host\"", "\"cpu\":\"v5\"", HLSNAP_ERR_CONFIG, BOTH},
    {"CPU level empty", on_config, "\"cpu\":\"host\"", "\"cpu\":\"\"", HLSNAP_ERR_CONFIG, BOTH},
    {"CPU level in capitals", on_config, "\"cpu\":\"host\"", "\"cpu\":\"V2\"", HLSNAP_ERR_CONFIG, BOTH},
    {"CPU level a number", on_config, "\"cpu\":\"host\"", "\"cpu\":2", HLSNAP_ERR_CONFIG, BOTH},
    {"CPU level with other features", on_config, "\"cpu\":\"host\",\"features\":[", "\"cpu\":\"v2\",\"features\":[\"a0\",", HLSNAP_ERR_CONFIG, BOTH},
    {"CPU feature unknown", on_config, "\"features\":[", "\"features\":[\"a0\",", HLSNAP_ERR_CPU, BOTH},
    {"CPU features descending", on_config, "\"features\":[", "\"features\":[\"zz\",\"a0\",", HLSNAP_ERR_CONFIG, BOTH},
    {"CPU feature twice", on_config, "\"features\":[", "\"features\":[\"a0\",\"a0\",", HLSNAP_ERR_CONFIG, BOTH},
    {"CPU features 257", crowd_config, "\"features\":[", "257:\"a#\",", HLSNAP_ERR_CONFIG, BOTH},
    {"CPU features 100 unknown", crowd_config, "\"features\":[", "100:\"a#\",", HLSNAP_ERR_CPU, BOTH},
    {"CPU feature of 32 letters", on_config, "\"features\":[", "\"features\":[\"a2345678901234567890123456789012\",", HLSNAP_ERR_CONFIG, BOTH},
    {"CPU feature in capitals", on_config, "\"features\":[", "\"features\":[\"A0\",", HLSNAP_ERR_CONFIG, BOTH},
    {"CPU feature a number", on_config, "\"features\":[", "\"features\":[7,", HLSNAP_ERR_CONFIG, BOTH},
    {"CPU feature empty", on_config, "\"features\":[", "\"features\":[\"\",", HLSNAP_ERR_CONFIG, BOTH},
    {"generation 2^63", on_config, "\"generation\":\"0x7\"", "\"generation\":\"0x8000000000000000\"", HLSNAP_ERR_CONFIG, BOTH},
    {"generation 2^64-1", on_config, "\"generation\":\"0x7\"", "\"generation\":\"0xffffffffffffffff\"", HLSNAP_ERR_CONFIG, BOTH},
    {"generation a number", on_config, "\"generation\":\"0x7\"", "\"generation\":7", HLSNAP_ERR_CONFIG, BOTH},
    {"function name empty", on_config, "\"name\":\"clock\"", "\"name\":\"\"", HLSNAP_ERR_CONFIG, BOTH},
    {"function name of control characters", on_config, "\"name\":\"clock\"", "\"name\":\"a\\nb\"", HLSNAP_ERR_CONFIG, BOTH},
    {"function name of 64 bytes", on_config, "\"name\":\"clock\"", "\"name\":\"a234567890123456789012345678901234567890123456789012345678901234\"", HLSNAP_ERR_CONFIG, BOTH},
    {"function name of 10000 bytes", crowd_config, "{\"name\":\"", "10000:x", HLSNAP_ERR_CONFIG, BOTH},
    {"function name with NUL", on_config, "\"name\":\"clock\"", "\"name\":\"clock\\u0000\"", HLSNAP_ERR_JSON, BOTH},
    {"function name a number", on_config, "\"name\":\"clock\"", "\"name\":7", HLSNAP_ERR_CONFIG, BOTH},
    {"function without signature", on_config, ",\"signature\":\"u64()\"", "", HLSNAP_ERR_CONFIG, BOTH},
    {"function signature a number", on_config, "\"u64()\"", "7", HLSNAP_ERR_CONFIG, BOTH},
    {"function signature empty", on_config, "\"u64()\"", "\"\"", HLSNAP_ERR_CONFIG, BOTH},
    {"function signature with blanks", on_config, "\"u64()\"", "\"u64( )\"", HLSNAP_ERR_CONFIG, BOTH},
    {"functions 1025 imports", crowd_config, "\"imports\":[", "1023:{\"name\":\"f#\",\"signature\":\"void()\"},", HLSNAP_ERR_CONFIG, BOTH},
    {"functions 1025 exports", crowd_config, "\"exports\":[", "1022:{\"name\":\"f#\",\"signature\":\"void()\"},", HLSNAP_ERR_CONFIG, BOTH},
    {"function name twice", on_config, "\"name\":\"clock\"", "\"name\":\"twice\"", HLSNAP_ERR_CONFIG, BOTH},
    {"function type unknown", on_config, "\"u64()\"", "\"u65()\"", HLSNAP_ERR_CONFIG, BOTH},
    {"function of a void argument", on_config, "\"u64()\"", "\"u64(void)\"", HLSNAP_ERR_CONFIG, BOTH},
    {"function of 33 arguments", on_config, "\"u64()\"", "\"u64(i32,i32,i32,i32,i32,i32,i32,i32,i32,i32,i32,i32,i32,i32,i32,i32,i32,i32,i32,i32,i32,i32,i32,i32,i32,i32,i32,i32,i32,i32,i32,i32,i32)\"", HLSNAP_ERR_CONFIG, BOTH},
    {"functions an object", on_config, "\"imports\":[{", "\"imports\":{},\"x\":[{", HLSNAP_ERR_CONFIG, BOTH},
    {"function a string", on_config, "\"imports\":[{", "\"imports\":[\"clock\",{", HLSNAP_ERR_CONFIG, BOTH},

    /* config: memory arithmetic */
    {"window base 0", on_config, "\"base\":\"0x10000000\"", "\"base\":\"0x0\"", HLSNAP_ERR_CONFIG, BOTH},
    {"window base unaligned", on_config, "\"base\":\"0x10000000\"", "\"base\":\"0x10001000\"", HLSNAP_ERR_CONFIG, BOTH},
    {"window base not canonical", on_config, "\"base\":\"0x10000000\"", "\"base\":\"0xffff800000000000\"", HLSNAP_ERR_CONFIG, BOTH},
    {"window base at the top", on_config, "\"base\":\"0x10000000\"", "\"base\":\"0xffffffffffe00000\"", HLSNAP_ERR_CONFIG, BOTH},
    {"window pages 0", on_config, "\"pages\":300", "\"pages\":0", HLSNAP_ERR_CONFIG, BOTH},
    {"window pages too few", on_config, "\"pages\":300", "\"pages\":296", HLSNAP_ERR_CONFIG, BOTH},
    {"window pages too many", on_config, "\"pages\":300", "\"pages\":8388609", HLSNAP_ERR_CONFIG, BOTH},
    {"window pages 2^53", on_config, "\"pages\":300", "\"pages\":9007199254740992", HLSNAP_ERR_CONFIG, BOTH},
    {"window pages -1", on_config, "\"pages\":300", "\"pages\":-1", HLSNAP_ERR_CONFIG, BOTH},
    {"region kind unknown", on_config, "\"kind\":\"data\"", "\"kind\":\"code\"", HLSNAP_ERR_CONFIG, BOTH},
    {"region kind a number", on_config, "\"kind\":\"data\"", "\"kind\":2", HLSNAP_ERR_CONFIG, BOTH},
    {"region pages 0", on_config, "\"0x10006000\",\"pages\":8", "\"0x10006000\",\"pages\":0", HLSNAP_ERR_CONFIG, BOTH},
    {"region pages overflow", on_config, "\"0x10006000\",\"pages\":8", "\"0x10006000\",\"pages\":4503599627370497", HLSNAP_ERR_CONFIG, BOTH},
    {"regions overlap", on_config, "\"0x10006000\",\"pages\":8", "\"0x10006000\",\"pages\":11", HLSNAP_ERR_CONFIG, BOTH},
    {"region below its place", on_config, "\"0x10006000\"", "\"0x10005000\"", HLSNAP_ERR_CONFIG, BOTH},
    {"region unaligned", on_config, "\"0x10006000\"", "\"0x10006001\"", HLSNAP_ERR_CONFIG, BOTH},
    {"region outside the window", on_config, "\"0x10128000\"", "\"0x10200000\"", HLSNAP_ERR_CONFIG, BOTH},
    {"region gva near 2^64", on_config, "\"0x10128000\"", "\"0xfffffffffffff000\"", HLSNAP_ERR_CONFIG, BOTH},
    {"two heaps", on_config, "\"kind\":\"data\"", "\"kind\":\"heap\"", HLSNAP_ERR_CONFIG, BOTH},
    {"no text", on_config, "\"kind\":\"text\"", "\"kind\":\"rodata\"", HLSNAP_ERR_CONFIG, BOTH},
    {"no stack", on_config, "\"kind\":\"stack\"", "\"kind\":\"data\"", HLSNAP_ERR_CONFIG, BOTH},
    {"no guard below the stack", on_config, "\"0x10010000\",\"pages\":256", "\"0x10010000\",\"pages\":257", HLSNAP_ERR_CONFIG, BOTH},
    {"no regions", member, "regions", "[]", HLSNAP_ERR_CONFIG, BOTH},
    {"33 regions", crowd_config, "\"regions\":[", "25:{\"kind\":\"rodata\",\"gva\":\"0x1\",\"pages\":1},", HLSNAP_ERR_CONFIG, BOTH},
    {"region pages -1", on_config, "\"0x10006000\",\"pages\":8", "\"0x10006000\",\"pages\":-1", HLSNAP_ERR_CONFIG, BOTH},
    {"region pages beyond the window", on_config, "\"0x10128000\",\"pages\":1", "\"0x10128000\",\"pages\":8388608", HLSNAP_ERR_CONFIG, BOTH},
    {"region a number", on_config, "\"regions\":[", "\"regions\":[7,", HLSNAP_ERR_CONFIG, BOTH},
    {"region without pages", on_config, ",\"pages\":8}", "}", HLSNAP_ERR_CONFIG, BOTH},
    {"window over the top", both_config, "\"0x10000000\"|300", "\"0x7effffe00000\"|513", HLSNAP_ERR_CONFIG, BOTH},
    {"mailbox of 65537 pages", both_config, "\"pages\":300|16},{\"kind\":\"tls\",\"gva\":\"0x10127000\",\"pages\":1},{\"kind\":\"identity\",\"gva\":\"0x10128000\"",
     "\"pages\":65817|65537},{\"kind\":\"tls\",\"gva\":\"0x20117000\",\"pages\":1},{\"kind\":\"identity\",\"gva\":\"0x20118000\"", HLSNAP_ERR_CONFIG, BOTH},
    {"no mailbox", on_config, "\"kind\":\"mailbox\"", "\"kind\":\"data\"", HLSNAP_ERR_CONFIG, BOTH},
    {"no heap", on_config, "\"kind\":\"heap\"", "\"kind\":\"data\"", HLSNAP_ERR_CONFIG, BOTH},
    {"no identity", on_config, "\"kind\":\"identity\"", "\"kind\":\"data\"", HLSNAP_ERR_CONFIG, BOTH},
    {"two stacks", on_config, "\"kind\":\"data\"", "\"kind\":\"stack\"", HLSNAP_ERR_CONFIG, BOTH},
    {"two mailboxes", on_config, "\"kind\":\"data\"", "\"kind\":\"mailbox\"", HLSNAP_ERR_CONFIG, BOTH},
    {"mailbox of a page", on_config, "\"0x10116000\",\"pages\":16", "\"0x10116000\",\"pages\":1", HLSNAP_ERR_CONFIG, BOTH},
    {"identity of two pages", on_config, "\"0x10128000\",\"pages\":1", "\"0x10128000\",\"pages\":2", HLSNAP_ERR_CONFIG, BOTH},
    {"entry 0", on_config, "\"entry\":\"0x10000123\"", "\"entry\":\"0x0\"", HLSNAP_ERR_CONFIG, BOTH},
    {"entry in data", on_config, "\"entry\":\"0x10000123\"", "\"entry\":\"0x10006000\"", HLSNAP_ERR_CONFIG, BOTH},
    {"entry below the window", on_config, "\"entry\":\"0x10000123\"", "\"entry\":\"0xfffffff\"", HLSNAP_ERR_CONFIG, BOTH},
    {"entry behind text", on_config, "\"entry\":\"0x10000123\"", "\"entry\":\"0x10004000\"", HLSNAP_ERR_CONFIG, BOTH},
    {"entry not canonical", on_config, "\"entry\":\"0x10000123\"", "\"entry\":\"0x8000000000000000\"", HLSNAP_ERR_CONFIG, BOTH},
    {"system calls lead into text", on_config, "\"syscall\":\"0x0\"", "\"syscall\":\"0x10000000\"", OK, BOTH},
    {"system calls lead to its last byte", on_config, "\"syscall\":\"0x0\"", "\"syscall\":\"0x10003fff\"", OK, BOTH},
    {"system calls lead into read-only data", on_config, "\"syscall\":\"0x0\"", "\"syscall\":\"0x10004000\"", HLSNAP_ERR_CONFIG, BOTH},
    {"system calls lead into data", on_config, "\"syscall\":\"0x0\"", "\"syscall\":\"0x10006000\"", HLSNAP_ERR_CONFIG, BOTH},
    {"system calls lead into the heap", on_config, "\"syscall\":\"0x0\"", "\"syscall\":\"0x10010000\"", HLSNAP_ERR_CONFIG, BOTH},
    {"system calls lead to the stack", on_config, "\"syscall\":\"0x0\"", "\"syscall\":\"0x10111000\"", HLSNAP_ERR_CONFIG, BOTH},
    {"system calls lead into the mailbox", on_config, "\"syscall\":\"0x0\"", "\"syscall\":\"0x10116000\"", HLSNAP_ERR_CONFIG, BOTH},
    {"system calls lead into the identity page", on_config, "\"syscall\":\"0x0\"", "\"syscall\":\"0x10128000\"", HLSNAP_ERR_CONFIG, BOTH},
    {"system calls lead into the thread's page", on_config, "\"syscall\":\"0x0\"", "\"syscall\":\"0x10127000\"", HLSNAP_ERR_CONFIG, BOTH},
    {"system calls lead into the gate", on_config, "\"syscall\":\"0x0\"", "\"syscall\":\"0x1030a0\"", HLSNAP_ERR_CONFIG, BOTH},
    {"system calls lead into the stub", on_config, "\"syscall\":\"0x0\"", "\"syscall\":\"0x101400\"", HLSNAP_ERR_CONFIG, BOTH},
    {"system calls lead below the window", on_config, "\"syscall\":\"0x0\"", "\"syscall\":\"0xfffffff\"", HLSNAP_ERR_CONFIG, BOTH},
    {"system calls lead nowhere", on_config, "\"syscall\":\"0x0\"", "\"syscall\":\"0x1\"", HLSNAP_ERR_CONFIG, BOTH},
    {"system calls lead to a kernel's half", on_config, "\"syscall\":\"0x0\"", "\"syscall\":\"0xffff800000000000\"", HLSNAP_ERR_CONFIG, BOTH},
    {"system calls lead to 2^64 - 1", on_config, "\"syscall\":\"0x0\"", "\"syscall\":\"0xffffffffffffffff\"", HLSNAP_ERR_CONFIG, BOTH},
    {"module outside", on_config, "\"module\":\"0x10004040\"", "\"module\":\"0x1\"", HLSNAP_ERR_CONFIG, BOTH},
    {"module in the mailbox", on_config, "\"module\":\"0x10004040\"", "\"module\":\"0x10116000\"", HLSNAP_ERR_CONFIG, BOTH},
    {"no tls", on_config, "\"kind\":\"tls\"", "\"kind\":\"data\"", HLSNAP_ERR_CONFIG, BOTH},
    {"tls not below identity", on_config, "\"0x10127000\",\"pages\":1", "\"0x10126000\",\"pages\":1", HLSNAP_ERR_CONFIG, BOTH},
    {"tls_size beyond what the runtime leaves", on_config, "\"tls_size\":\"0x180\"", "\"tls_size\":\"0x401\"", HLSNAP_ERR_CONFIG, BOTH},
    {"tls_size 2^64-1", on_config, "\"tls_size\":\"0x180\"", "\"tls_size\":\"0xffffffffffffffff\"", HLSNAP_ERR_CONFIG, BOTH},

    /* config: layers and extents */
    {"layers of another size", on_config, "{\"pages\":42", "{\"pages\":46", HLSNAP_ERR_CONFIG, BOTH},
    {"layer of no size", on_config, "{\"pages\":42,", "{", HLSNAP_ERR_CONFIG, BOTH},
    {"layer of another chunk list", on_config, "\"chunks\":\"sha256:", "\"chunks\":\"sha256:0", HLSNAP_ERR_CONFIG, BOTH},
    {"layer a number", on_config, "\"layers\":[{", "\"layers\":[42,{", HLSNAP_ERR_CONFIG, BOTH},
    {"layer pages shown twice", on_config, "[100,1,", "[60,4,0,0],[100,1,", HLSNAP_ERR_CONFIG, BOTH},
    {"layers a string", on_config, "{\"pages\":42", "{\"pages\":\"42\"", HLSNAP_ERR_CONFIG, BOTH},
    {"layers none", on_config, "\"layers\":[{", "\"layers\":[],\"x\":[{", HLSNAP_ERR_CONFIG, BOTH},
    {"layers 129", crowd_config, "\"layers\":[", "128:42,", HLSNAP_ERR_CONFIG, BOTH},
    {"extents none", member, "extents", "[]", HLSNAP_ERR_CONFIG, BOTH},
    {"extents 32769", crowd_config, "\"extents\":[", "32768:[0,1,0,0],", HLSNAP_ERR_CONFIG, BOTH},
    {"extent of 2^53", on_config, FIRST_EXTENT, "[9007199254740992,4,0,0]", HLSNAP_ERR_CONFIG, BOTH},
    {"extent page 2^32-1", on_config, "[276,1,", "[4294967295,1,", HLSNAP_ERR_CONFIG, BOTH},
    {"extent empty", on_config, FIRST_EXTENT, "[]", HLSNAP_ERR_CONFIG, BOTH},
    {"extent of three", on_config, FIRST_EXTENT, "[0,4,0]", HLSNAP_ERR_CONFIG, BOTH},
    {"extent of five", on_config, FIRST_EXTENT, "[0,4,0,0,0]", HLSNAP_ERR_CONFIG, BOTH},
    {"extent of a string", on_config, FIRST_EXTENT, "[0,4,0,\"0\"]", HLSNAP_ERR_CONFIG, BOTH},
    {"extent negative", on_config, FIRST_EXTENT, "[0,4,0,-1]", HLSNAP_ERR_CONFIG, BOTH},
    {"extent 2^32", on_config, FIRST_EXTENT, "[0,4,0,4294967296]", HLSNAP_ERR_CONFIG, BOTH},
    {"extent an object", on_config, FIRST_EXTENT, "{\"page\":0}", HLSNAP_ERR_CONFIG, BOTH},
    {"extent of 0 pages", on_config, FIRST_EXTENT, "[0,0,0,0]", HLSNAP_ERR_CONFIG, BOTH},
    {"extent pages overflow", on_config, FIRST_EXTENT, "[0,4294967295,0,0]", HLSNAP_ERR_CONFIG, BOTH},
    {"extent beyond its layer", on_config, FIRST_EXTENT, "[0,4,0,42]", HLSNAP_ERR_CONFIG, BOTH},
    {"extent layer page overflow", on_config, FIRST_EXTENT, "[0,4,0,4294967295]", HLSNAP_ERR_CONFIG, BOTH},
    {"extent of no layer", on_config, FIRST_EXTENT, "[0,4,1,0]", HLSNAP_ERR_CONFIG, BOTH},
    {"extent outside the window", on_config, FIRST_EXTENT, "[300,4,0,0]", HLSNAP_ERR_CONFIG, BOTH},
    {"extent over a region's end", on_config, FIRST_EXTENT, "[0,5,0,0]", HLSNAP_ERR_CONFIG, BOTH},
    {"extent in a guard", on_config, FIRST_EXTENT, "[15,1,0,0]", HLSNAP_ERR_CONFIG, BOTH},
    {"extent in the mailbox", on_config, "[276,1,", "[278,1,", HLSNAP_ERR_CONFIG, BOTH},
    {"extent in the identity page", on_config, "[276,1,", "[296,1,", HLSNAP_ERR_CONFIG, BOTH},
    {"extents overlap", on_config, "[4,2,", "[3,1,0,0],[4,2,", HLSNAP_ERR_CONFIG, BOTH},
    {"extents unsorted", on_config, FIRST_EXTENT, "[1,1,0,0],[0,1,0,0]", HLSNAP_ERR_CONFIG, BOTH},
    {"extents an object", on_config, "\"extents\":[", "\"extents\":{},\"x\":[", HLSNAP_ERR_CONFIG, BOTH},

    /* config: maps, the first of which has page number 1024 */
    {"maps an object", on_config, "\"maps\":[]", "\"maps\":{}", HLSNAP_ERR_CONFIG, BOTH},
    {"map a number", on_config, MAPS, MAPS "7,", HLSNAP_ERR_CONFIG, BOTH},
    {"map of nothing", on_config, MAPS, MAPS "{},", HLSNAP_ERR_CONFIG, BOTH},
    {"map with an unknown field", on_config, MAPS, MAPS "{\"pages\":1,\"name\":\"m\",\"mode\":\"read\",\"source\":\"host\",\"gva\":\"0x7f0000000000\",\"size\":1,\"digest\":\"\"},", HLSNAP_ERR_CONFIG, BOTH},
    {"map without a digest", on_config, MAPS, MAPS "{\"name\":\"m\",\"mode\":\"read\",\"source\":\"host\",\"gva\":\"0x7f0000000000\",\"size\":1},", HLSNAP_ERR_CONFIG, BOTH},
    {"map of a byte", on_config, MAPS, MAPS MAP_LIKE("read", "host", "1") ",", OK, BOTH},
    {"maps 16", on_config, MAPS, MAPS MAPS_16, OK, BOTH},
    {"maps 17", on_config, MAPS, MAPS MAPS_16 MAP("b6", "0x7f0002000000", "1") ",", HLSNAP_ERR_CONFIG, BOTH},
    {"map of the longest name", on_config, MAPS, MAPS MAP("a23456789012345678901234567890123456789012345678901234567890123", "0x7f0000000000", "1") ",", OK, BOTH},
    {"map name of 64 bytes", on_config, MAPS, MAPS MAP("a234567890123456789012345678901234567890123456789012345678901234", "0x7f0000000000", "1") ",", HLSNAP_ERR_CONFIG, BOTH},
    {"map name empty", on_config, MAPS, MAPS MAP("", "0x7f0000000000", "1") ",", HLSNAP_ERR_CONFIG, BOTH},
    {"map name with a slash", on_config, MAPS, MAPS MAP("a/b", "0x7f0000000000", "1") ",", HLSNAP_ERR_CONFIG, BOTH},
    {"map name of control characters", on_config, MAPS, MAPS MAP("\\u001b[2J", "0x7f0000000000", "1") ",", HLSNAP_ERR_CONFIG, BOTH},
    {"map name a number", on_config, MAPS, MAPS MAP_OF("7", "\"read\"", "\"host\"", "\"0x7f0000000000\"", "1", "\"\"") ",", HLSNAP_ERR_CONFIG, BOTH},
    {"map name twice", on_config, MAPS, MAPS MAP("m", "0x7f0000000000", "1") "," MAP("m", "0x7f0000200000", "1") ",", HLSNAP_ERR_CONFIG, BOTH},
    {"map mode unknown", on_config, MAPS, MAPS MAP_LIKE("write", "host", "1") ",", HLSNAP_ERR_CONFIG, BOTH},
    {"map mode in capitals", on_config, MAPS, MAPS MAP_LIKE("READ", "host", "1") ",", HLSNAP_ERR_CONFIG, BOTH},
    {"map mode a number", on_config, MAPS, MAPS MAP_OF("\"m\"", "0", "\"host\"", "\"0x7f0000000000\"", "1", "\"\"") ",", HLSNAP_ERR_CONFIG, BOTH},
    {"map source unknown", on_config, MAPS, MAPS MAP_LIKE("read", "file", "1") ",", HLSNAP_ERR_CONFIG, BOTH},
    {"map source a truth", on_config, MAPS, MAPS MAP_OF("\"m\"", "\"read\"", "true", "\"0x7f0000000000\"", "1", "\"\"") ",", HLSNAP_ERR_CONFIG, BOTH},
    {"map shared and captured", on_config, MAPS, MAPS MAP_LIKE("shared", "layers", "1") ",", HLSNAP_ERR_CONFIG, BOTH},
    {"map captured, and all zero", on_config, MAPS, MAPS MAP_LIKE("read", "layers", "17179869184") ",", OK, BOTH},
    {"map captured, larger than 16 GiB", on_config, MAPS, MAPS MAP_LIKE("read", "layers", "17179869185") ",", HLSNAP_ERR_CONFIG, BOTH},
    {"map of 64 GiB", on_config, MAPS, MAPS MAP_LIKE("private", "optional", "68719476736") ",", OK, BOTH},
    {"map larger than 64 GiB", on_config, MAPS, MAPS MAP_LIKE("private", "host", "68719476737") ",", HLSNAP_ERR_CONFIG, BOTH},
    {"map of 2^53 bytes", on_config, MAPS, MAPS MAP_LIKE("read", "host", "9007199254740992") ",", HLSNAP_ERR_CONFIG, BOTH},
    {"map of no bytes", on_config, MAPS, MAPS MAP_LIKE("read", "host", "0") ",", HLSNAP_ERR_CONFIG, BOTH},
    {"map of -1 bytes", on_config, MAPS, MAPS MAP_LIKE("read", "host", "-1") ",", HLSNAP_ERR_CONFIG, BOTH},
    {"map size a string", on_config, MAPS, MAPS MAP_LIKE("read", "host", "\"1\"") ",", HLSNAP_ERR_CONFIG, BOTH},
    {"map in the window", on_config, MAPS, MAPS MAP("m", "0x10200000", "1") ",", HLSNAP_ERR_CONFIG, BOTH},
    {"map at 0", on_config, MAPS, MAPS MAP("m", "0x0", "1") ",", HLSNAP_ERR_CONFIG, BOTH},
    {"map unaligned", on_config, MAPS, MAPS MAP("m", "0x7f0000100000", "1") ",", HLSNAP_ERR_CONFIG, BOTH},
    {"map at the last place", on_config, MAPS, MAPS MAP("m", "0x7f0fffe00000", "2097152") ",", OK, BOTH},
    {"map over the last place", on_config, MAPS, MAPS MAP("m", "0x7f0fffe00000", "2097153") ",", HLSNAP_ERR_CONFIG, BOTH},
    {"map behind all places", on_config, MAPS, MAPS MAP("m", "0x7f1000000000", "1") ",", HLSNAP_ERR_CONFIG, BOTH},
    {"map at a kernel's address", on_config, MAPS, MAPS MAP("m", "0xffff800000000000", "1") ",", HLSNAP_ERR_CONFIG, BOTH},
    {"map at the top of addresses", on_config, MAPS, MAPS MAP("m", "0xffffffffffe00000", "4194304") ",", HLSNAP_ERR_CONFIG, BOTH},
    {"map gva a number", on_config, MAPS, MAPS MAP_OF("\"m\"", "\"read\"", "\"host\"", "139637976727552", "1", "\"\"") ",", HLSNAP_ERR_CONFIG, BOTH},
    {"maps descending", on_config, MAPS, MAPS MAP("m", "0x7f0000200000", "1") "," MAP("n", "0x7f0000000000", "1") ",", HLSNAP_ERR_CONFIG, BOTH},
    {"maps at one place", on_config, MAPS, MAPS MAP("m", "0x7f0000000000", "1") "," MAP("n", "0x7f0000000000", "1") ",", HLSNAP_ERR_CONFIG, BOTH},
    {"maps overlap", on_config, MAPS, MAPS MAP("m", "0x7f0000000000", "4194304") "," MAP("n", "0x7f0000200000", "1") ",", HLSNAP_ERR_CONFIG, BOTH},
    {"maps touch", on_config, MAPS, MAPS MAP("m", "0x7f0000000000", "2097152") "," MAP("n", "0x7f0000200000", "1") ",", HLSNAP_ERR_CONFIG, BOTH},
    {"maps a page apart", on_config, MAPS, MAPS MAP("m", "0x7f0000000000", "2093056") "," MAP("n", "0x7f0000200000", "1") ",", OK, BOTH},
    {"map digest", on_config, MAPS, MAPS MAP_OF("\"m\"", "\"read\"", "\"host\"", "\"0x7f0000000000\"", "1", "\"sha256:" HEX0 "\"") ",", OK, BOTH},
    {"map digest short", on_config, MAPS, MAPS MAP_OF("\"m\"", "\"read\"", "\"host\"", "\"0x7f0000000000\"", "1", "\"sha256:" HEX0_63 "\"") ",", HLSNAP_ERR_CONFIG, BOTH},
    {"map digest long", on_config, MAPS, MAPS MAP_OF("\"m\"", "\"read\"", "\"host\"", "\"0x7f0000000000\"", "1", "\"sha256:" HEX0 "0\"") ",", HLSNAP_ERR_CONFIG, BOTH},
    {"map digest in capitals", on_config, MAPS, MAPS MAP_OF("\"m\"", "\"read\"", "\"host\"", "\"0x7f0000000000\"", "1", "\"sha256:" HEX0_63 "A\"") ",", HLSNAP_ERR_CONFIG, BOTH},
    {"map digest of another algorithm", on_config, MAPS, MAPS MAP_OF("\"m\"", "\"read\"", "\"host\"", "\"0x7f0000000000\"", "1", "\"sha512:" HEX0 "\"") ",", HLSNAP_ERR_CONFIG, BOTH},
    {"map digest null", on_config, MAPS, MAPS MAP_OF("\"m\"", "\"read\"", "\"host\"", "\"0x7f0000000000\"", "1", "null") ",", HLSNAP_ERR_CONFIG, BOTH},
    {"extent in a private map", IN_MAP("1024", MAP_LIKE("private", "host", "8193")), OK, BOTH},
    {"extent in its last page", IN_MAP("1026", MAP_LIKE("private", "optional", "8193")), OK, BOTH},
    {"extent in a captured map", IN_MAP("1025", MAP_LIKE("read", "layers", "8193")), OK, BOTH},
    {"extent in a captured private map", IN_MAP("1025", MAP_LIKE("private", "layers", "8193")), OK, BOTH},
    {"extent in a map that is read", IN_MAP("1024", MAP_LIKE("read", "host", "8193")), HLSNAP_ERR_CONFIG, BOTH},
    {"extent in a map that is optional", IN_MAP("1024", MAP_LIKE("read", "optional", "8193")), HLSNAP_ERR_CONFIG, BOTH},
    {"extent in a map that is shared", IN_MAP("1024", MAP_LIKE("shared", "host", "8193")), HLSNAP_ERR_CONFIG, BOTH},
    {"extent behind a map", IN_MAP("1027", MAP_LIKE("private", "host", "8193")), HLSNAP_ERR_CONFIG, BOTH},
    {"extent before a map", IN_MAP("1023", MAP_LIKE("private", "host", "8193")), HLSNAP_ERR_CONFIG, BOTH},
    {"extent behind the window", IN_MAP("300", MAP_LIKE("private", "host", "8193")), HLSNAP_ERR_CONFIG, BOTH},
    {"extent over a map's end", on_config, "[100,1,0,40],[276,1,0,41]],\"maps\":[", "[1026,2,0,40]],\"maps\":[" MAP_LIKE("private", "host", "8193") ",", HLSNAP_ERR_CONFIG, BOTH},
    {"extent over a map's start", on_config, "[100,1,0,40],[276,1,0,41]],\"maps\":[", "[1023,2,0,40]],\"maps\":[" MAP_LIKE("private", "host", "8193") ",", HLSNAP_ERR_CONFIG, BOTH},
    {"extent in a map's last possible page", IN_MAP("16778239", MAP_LIKE("private", "host", "68719476736")), OK, BOTH},
    {"extent behind a map's last possible page", IN_MAP("16778240", MAP_LIKE("private", "host", "68719476736")), HLSNAP_ERR_CONFIG, BOTH},
    {"one layer of two captured maps", on_config, "[276,1,0,41]],\"maps\":[", "[276,1,0,41],[1024,42,0,0],[1536,41,0,0]],\"maps\":[" TWO_MAPS("read", "layers", "172000"), OK, BOTH},
    {"one layer of two maps, a page elsewhere", on_config, "[276,1,0,41]],\"maps\":[", "[276,1,0,41],[1024,42,0,0],[1537,1,0,0]],\"maps\":[" TWO_MAPS("read", "layers", "172000"), HLSNAP_ERR_CONFIG, BOTH},
    {"one layer of two maps of another size", on_config, "[276,1,0,41]],\"maps\":[", "[276,1,0,41],[1024,42,0,0]],\"maps\":[" TWO_MAPS("private", "layers", "172033"), HLSNAP_ERR_CONFIG, BOTH},
    {"one layer of two maps of the host's", on_config, "[276,1,0,41]],\"maps\":[", "[276,1,0,41],[1024,42,0,0]],\"maps\":[" TWO_MAPS("private", "host", "172000"), HLSNAP_ERR_CONFIG, BOTH},
    {"extent in no map", on_config, "[276,1,0,41]],\"maps\":[", "[1024,1,0,41]],\"maps\":[", HLSNAP_ERR_CONFIG, BOTH},
};

/* Between "digest":" after `type` in text: the digest there. */
static void digest_in(const char *text, const char *type, char out[72]) {
    const char *at = strstr(text, type);
    at = at ? strstr(at, "\"digest\":\"") : NULL;
    if (CHECK(at != NULL)) snprintf(out, 72, "%s", at + 10);
}

static void read_texts(const char *dir) {
    char path[300];
    free(marker_text), free(index_text), free(manifest_text), free(config_text);
    snprintf(path, sizeof(path), "%s/oci-layout", dir);
    marker_text = get(path, NULL);
    snprintf(path, sizeof(path), "%s/index.json", dir);
    index_text = get(path, NULL);
    digest_in(index_text, "\"manifests\"", manifest_digest);
    manifest_text = get(blob_path(dir, manifest_digest), NULL);
    digest_in(manifest_text, "\"config\"", config_digest);
    digest_in(manifest_text, "memory.v1", memory_digest);
    digest_in(manifest_text, "chunks.v1", chunks_digest);
    config_text = get(blob_path(dir, config_digest), NULL);
}

/* A copy refuses what a load refuses, by the same code, and leaves nothing then; but what is another machine's is copied. */
static void check_copy(const char *name, int want) {
    static const int any[] = {HLSNAP_ERR_CPU, HLSNAP_ERR_ARCH, HLSNAP_ERR_VERSION};
    const long live = alloc_live;
    const int before = test_bad;
    size_t i;
    for (i = 0; i < HLSNAP_COUNT(any); i++)
        if (want == any[i]) want = OK;
    rm_rf("copied");
    CHECK_EQ(hlsnap_oci_copy(dir_now, tag_now, "copied", "copy", NULL, NULL, &err), want);
    CHECK_EQ(access("copied", F_OK) == 0, want == OK);
    CHECK(want || (tidy("copied") && sums_right("copied")));
    CHECK_EQ(alloc_live, live);
    if (test_bad != before) printf("#   copy of %s: %s\n", name, err.msg);
}

/* What stands in a document, however it is opened: with another way of opening once is enough. */
static bool is_about_text(const hostile *h) { return h->mutate == on_config || h->mutate == on_index || h->mutate == on_manifest; }

static void hostile_layouts(void) {
    hlsnap_snapshot *s = snapshot_new(1), *t;
    const char *origin = fresh();
    size_t i;
    int k, fds, now;
    CHECK_EQ(save(origin, "v1", s, NULL), 0);
    close(fds = dup(0));
    for (i = 0; i < HLSNAP_COUNT(table); i++) {
        const hostile *h = &table[i];
        if (no_openat2 && is_about_text(h)) continue;
        for (k = 0; k < 4; k++) { /* verify or not, PRIVATE or NONE */
            int want = k % 2 && h->unverified != BOTH ? h->unverified : h->code, before = test_bad;
            long live = alloc_live;
            if (k == 0) {
                dir_now = "hostile";
                tag_now = "v1";
                rm_rf("hostile");
                sh("cp -a %s hostile", origin);
                read_texts(dir_now);
                h->mutate(h->a, h->b);
            }
            err.code = (hlsnap_result)-1;
            err.msg[0] = 0;
            CHECK_EQ(load_with(dir_now, tag_now, k / 2 ? HLSNAP_OCI_GUARD_NONE : HLSNAP_OCI_GUARD_PRIVATE, k % 2, &t), want);
            CHECK_EQ(t == NULL, want != 0);
            if (want) CHECK_EQ(err.code, want);
            hlsnap_snapshot_release(t);
            CHECK_EQ(alloc_live, live);
            close(now = dup(0));
            CHECK_EQ(now, fds); /* no descriptor leaks */
            if (test_bad != before) printf("#   %s (%s): %s\n", h->name, k % 2 ? "unverified" : "verified", err.msg);
            else if (getenv("SHOW") && k == 0) printf("#   %s: %s\n", h->name, err.msg);
            if (k == 0) check_copy(h->name, want);
        }
    }
    printf("# %zu layouts\n", HLSNAP_COUNT(table));
    hlsnap_snapshot_release(s);
}

static void cpu_levels(void) { /* as set, in every load; with other features than its own none is read */
    static const char *const names[] = {"host", "v1", "v2", "v3", "v4"};
    hlsnap_oci_desc desc = HLSNAP_ZERO;
    hlsnap_snapshot_info info;
    uint32_t level;
    desc.any_cpu = true;
    for (level = HLSNAP_CPU_HOST; level <= HLSNAP_CPU_V4; level++) {
        hlsnap_snapshot *s = snapshot_new(1), *t = NULL;
        char want[32];
        dir_now = fresh();
        s->guest->cpu = level;
        if (level) s->guest->features = hlsnap__cpu_level_features(level);
        CHECK_EQ(save(dir_now, "v1", s, NULL), 0);
        read_texts(dir_now);
        snprintf(want, sizeof(want), "\"cpu\":\"%s\",\"features\":[", names[level]);
        CHECK(strstr(config_text, want));
        if (CHECK_EQ(hlsnap_oci_load(dir_now, "v1", &desc, &t, NULL, &err), 0)) {
            check_same(s, t);
            hlsnap_snapshot_get_info(t, &info);
            CHECK_EQ(info.cpu, level);
            if (level) CHECK_EQ(info.baseline, level);
        }
        hlsnap_snapshot_release(t);
        hlsnap_snapshot_release(s);
    }
}

/* Every member of the config: missing, or of every other type. */
static void config_members(void) {
    static const char *const members[] = {"version", "abi", "arch", "page_size", "library", "guest", "entry", "module", "syscall", "tls_size", "window",
        "regions", "exports", "imports", "cpu", "features", "machine", "generation", "layers", "extents", "maps"};
    static const char *const values[] = {"", "null", "true", "-1", "7", "\"\"", "\"0xg\"", "{}", "[]", "[null]"};
    static const struct { const char *member, *value; int code; } others[] = { /* than HLSNAP_ERR_CONFIG */
        {"version", "7", HLSNAP_ERR_VERSION}, {"abi", "7", HLSNAP_ERR_VERSION}, {"arch", "\"\"", HLSNAP_ERR_ARCH},
        {"arch", "\"0xg\"", HLSNAP_ERR_ARCH}, {"page_size", "7", HLSNAP_ERR_ARCH}, {"library", "\"\"", OK},
        {"library", "\"0xg\"", OK}, {"exports", "[]", OK}, {"imports", "[]", OK}, {"features", "[]", OK}, {"maps", "[]", OK}};
    hlsnap_snapshot *s = snapshot_new(1);
    char *config;
    size_t i, k, o;
    dir_now = fresh();
    CHECK_EQ(save(dir_now, "v1", s, NULL), 0);
    read_texts(dir_now);
    config = strdup(config_text);
    for (i = 0; i < HLSNAP_COUNT(members); i++)
        for (k = 0; k < HLSNAP_COUNT(values); k++) {
            int code = HLSNAP_ERR_CONFIG;
            for (o = 0; o < HLSNAP_COUNT(others); o++)
                if (!strcmp(others[o].member, members[i]) && !strcmp(others[o].value, values[k])) code = others[o].code;
            whole(&config_text, config);
            member(members[i], values[k]);
            if (!CHECK_EQ(loads(dir_now, "v1"), code)) printf("#   %s: %s: %s\n", members[i], values[k], err.msg);
        }
    free(config);
    hlsnap_snapshot_release(s);
}

/* Files of the layout at hand: 0 and 1 at its root, then manifest, config, chunk list, memory. */
static const char *file_of(const char *dir, int i) {
    static char path[300];
    const char *const digests[] = {manifest_digest, config_digest, chunks_digest, memory_digest};
    if (i >= 2) return blob_path(dir, digests[i - 2]);
    snprintf(path, sizeof(path), "%s/%s", dir, i ? "index.json" : "oci-layout");
    return path;
}

static void resized_while_read(void) { /* between the look at a file's size and the read */
    hlsnap_snapshot *s = snapshot_new(1), *t;
    const char *dir = fresh();
    struct stat st;
    bool cloned;
    int i, k;
    CHECK_EQ(save(dir, "v1", s, NULL), 0);
    read_texts(dir);
    CHECK_EQ(load_with(dir, "v1", HLSNAP_OCI_GUARD_PRIVATE, false, &t), 0);
    cloned = t && !t->layers[0]->sealed;
    hlsnap_snapshot_release(t);
    for (i = 0; i < 6; i++)
        for (k = -1; k <= 1; k += 2) {
            sh("rm -rf resized; cp -a %s resized", dir);
            resized = file_of("resized", i);
            CHECK_EQ(stat(resized, &st), 0);
            resized_to = st.st_size + k;
            /* a memory layer that grows shows nobody what is beyond its size; one that is cloned is not read at all */
            if (!CHECK_EQ(load_with("resized", "v1", HLSNAP_OCI_GUARD_PRIVATE, false, &t),
                          i == 5 && (k > 0 || cloned) ? 0 : HLSNAP_ERR_CHANGED))
                printf("#   file %d, %+d: %s\n", i, k, err.msg);
            CHECK_EQ(resized != NULL, i == 5 && cloned);
            if (t) check_same(s, t);
            hlsnap_snapshot_release(t);
        }
    resized = NULL;
    hlsnap_snapshot_release(s);
}

static void unreadable(void) {
    hlsnap_snapshot *s = snapshot_new(1);
    const char *dir = fresh(), *path;
    char dirs[3][100];
    bool root = geteuid() == 0;
    int i;
    CHECK_EQ(save(dir, "v1", s, NULL), 0);
    read_texts(dir);
    if (root) CHECK_EQ(sh("chmod 0711 .; chown -R 65534 %s", dir), 0);
    snprintf(dirs[0], 100, "%s", dir);
    snprintf(dirs[1], 100, "%s/blobs", dir);
    snprintf(dirs[2], 100, "%s/blobs/sha256", dir);
    for (i = 0; i < 10; i++) { /* the last one is readable */
        path = i < 6 ? file_of(dir, i) : dirs[i < 9 ? i - 6 : 0];
        if (i < 9) CHECK_EQ(chmod(path, 0), 0);
        if (root && seteuid(65534) != 0) break;
        if (!CHECK_EQ(loads(dir, "v1"), i < 9 ? HLSNAP_ERR_OS : 0)) printf("#   %s: %s\n", path, err.msg);
        if (i < 9) CHECK_EQ(err.os_errno, EACCES);
        if (root) CHECK_EQ(seteuid(0), 0);
        CHECK_EQ(chmod(path, i < 6 ? 0600 : 0700), 0);
    }
    hlsnap_snapshot_release(s);
    if (i < 10) SKIP("cannot be another user");
}

/* ---- save into what is there ---- */

static void refuses_and_leaves_alone(void) { /* what is malformed is not written to */
    static const struct { const char *name, *make; int code; } rows[] = {
        {"a file", "echo x > $D", HLSNAP_ERR_FILE}, {"a FIFO", "mkfifo $D", HLSNAP_ERR_FILE},
        {"a dangling link", "ln -s nowhere $D", HLSNAP_ERR_FILE}, {"no parent", "true", HLSNAP_ERR_FILE},
        {"marker no JSON", "mkdir $D; echo x > $D/oci-layout", HLSNAP_ERR_JSON},
        {"marker of version 2", "mkdir $D; echo '{\"imageLayoutVersion\":\"2.0.0\"}' > $D/oci-layout", HLSNAP_ERR_LAYOUT},
        {"marker without version", "mkdir $D; echo '{}' > $D/oci-layout", HLSNAP_ERR_LAYOUT},
        {"marker a link", "mkdir $D; ln -s x $D/oci-layout", HLSNAP_ERR_FILE},
        {"index without marker", "mkdir $D; echo '{\"schemaVersion\":2,\"manifests\":[]}' > $D/index.json", HLSNAP_ERR_FILE},
        {"index no JSON", "cp -r good $D; echo x > $D/index.json", HLSNAP_ERR_JSON},
        {"index of schema 1", "cp -r good $D; echo '{\"schemaVersion\":1,\"manifests\":[]}' > $D/index.json", HLSNAP_ERR_INDEX},
        {"index of another type", "cp -r good $D; echo '{\"schemaVersion\":2,\"mediaType\":\"a/b\",\"manifests\":[]}' > $D/index.json", HLSNAP_ERR_INDEX},
        {"index without manifests", "cp -r good $D; echo '{\"schemaVersion\":2}' > $D/index.json", HLSNAP_ERR_INDEX},
        {"index a FIFO", "cp -r good $D; rm $D/index.json; mkfifo $D/index.json", HLSNAP_ERR_FILE},
        {"blobs a file", "cp -r good $D; rm -r $D/blobs; touch $D/blobs", HLSNAP_ERR_FILE},
        {"blobs a link", "cp -r good $D; mv $D/blobs $D/b; ln -s b $D/blobs", HLSNAP_ERR_FILE},
        {"sha256 a link", "cp -r good $D; mv $D/blobs/sha256 $D/b; ln -s ../b $D/blobs/sha256", HLSNAP_ERR_FILE},
        {"lock file a link", "cp -r good $D; rm $D/.hlsnap.lock; ln -s x $D/.hlsnap.lock", HLSNAP_ERR_FILE},
        {"marker a FIFO", "cp -r good $D; rm $D/oci-layout; mkfifo $D/oci-layout", HLSNAP_ERR_FILE},
        {"marker a directory", "mkdir -p $D/oci-layout", HLSNAP_ERR_FILE},
        {"index a link", "cp -r good $D; mv $D/index.json $D/x; ln -s x $D/index.json", HLSNAP_ERR_FILE},
        {"index a directory", "cp -r good $D; rm $D/index.json; mkdir $D/index.json", HLSNAP_ERR_FILE},
        {"index a dangling link", "cp -r good $D; rm $D/index.json; ln -s x $D/index.json", HLSNAP_ERR_FILE},
        {"index beyond 64 MiB", "cp -r good $D; truncate -s 67108865 $D/index.json", HLSNAP_ERR_LIMIT},
        {"index of a malformed entry", "cp -r good $D; sed -i 's/sha256:/sha256:..\\//' $D/index.json", HLSNAP_ERR_INDEX},
        {"index with a name twice", "cp -r good $D; sed -i 's/{/{\"schemaVersion\":2,/' $D/index.json", HLSNAP_ERR_JSON},
        {"sha256 a FIFO", "cp -r good $D; rm -r $D/blobs/sha256; mkfifo $D/blobs/sha256", HLSNAP_ERR_FILE},
        {"lock file a directory", "cp -r good $D; rm $D/.hlsnap.lock; mkdir $D/.hlsnap.lock", HLSNAP_ERR_FILE},
        {"lock file a FIFO", "cp -r good $D; rm $D/.hlsnap.lock; mkfifo $D/.hlsnap.lock", HLSNAP_ERR_FILE},
        {"index as full as it may be", "cp -r good $D; (printf '{\"schemaVersion\":2,\"x\":\"'; head -c 33554240 /dev/zero | tr '\\0' x;"
         " printf '\",\"manifests\":[]}') > $D/index.json", HLSNAP_ERR_LIMIT}};
    hlsnap_snapshot *s = snapshot_new(1);
    size_t i;
    sh("rm -rf good");
    CHECK_EQ(save("good", "v1", s, NULL), 0);
    for (i = 0; i < HLSNAP_COUNT(rows); i++) {
        char before[60000];
        CHECK_EQ(sh("rm -rf bad; D=bad; %s", rows[i].make), 0);
        strcpy(before, names("bad"));
        if (!CHECK_EQ(save(strcmp(rows[i].name, "no parent") ? "bad" : "bad/dir", "v2", s, NULL), rows[i].code))
            printf("#   %s: %s\n", rows[i].name, err.msg);
        if (!CHECK(strcmp(before, names("bad")) == 0)) printf("#   %s: left\n%s", rows[i].name, names("bad"));
    }
    hlsnap_snapshot_release(s);
}

static void into_directories(void) { /* empty, with other files, half made, from another tool */
    static const char *const makes[] = {"mkdir $D", "mkdir $D; echo x > $D/note; mkdir $D/ingest", "mkdir -p $D/blobs/sha256",
        "mkdir $D; echo '{\"imageLayoutVersion\":\"1.0.0\"}' > $D/oci-layout",
        "mkdir $D; echo '{\"imageLayoutVersion\":\"1.0.0\"}' > $D/oci-layout; echo '{\"schemaVersion\":2,\"manifests\":null}' > $D/index.json",
        "mkdir real; ln -s real $D"};
    hlsnap_snapshot *s = snapshot_new(1);
    size_t i;
    for (i = 0; i < HLSNAP_COUNT(makes); i++) {
        CHECK_EQ(sh("rm -rf in real; D=in; %s", makes[i]), 0);
        if (!CHECK_EQ(save("in", "v1", s, NULL), 0)) printf("#   %s: %s\n", makes[i], err.msg);
        CHECK_EQ(loads("in", "v1"), 0);
        if (i == 1) CHECK_EQ(sh("[ $(cat in/note) = x ] && [ -d in/ingest ]"), 0);
    }
    sh("rm -rf in real");
    hlsnap_snapshot_release(s);
}

static void foreign_entries_stay(void) { /* byte by byte, numbers and blanks too */
    static const char entry[] = "{ \"mediaType\" : \"application/vnd.oci.image.index.v1+json\",\"size\":9007199254740991 ,\n\"digest\":"
        "\"sha512:ab\",\"x\":[1, -2,{\"\\u00e9\":null}],\"annotations\":{\"org.opencontainers.image.ref.name\":\"other/tag:1\",\"k\":\"\"}}";
    static const char head[] = "\n{ \"x\" : {\"a\":[ 1 ,2]},\"annotations\":{\"k\":\"v\"},\"schemaVersion\":2,\"manifests\" : [ ";
    static const char tail[] = " ], \"z\":9007199254740992 }\n";
    static const char start[] = "{\"x\":{\"a\":[ 1 ,2]},\"annotations\":{\"k\":\"v\"},\"schemaVersion\":2,\"manifests\":[{ ";
    static const char end[] = "],\"z\":9007199254740992}";
    const char *dir = fresh();
    hlsnap_snapshot *s = snapshot_new(1), *o = snapshot_new(2);
    char path[100], text[3000], *now;
    int i;
    sh("mkdir %s; echo '{\"imageLayoutVersion\":\"1.0.0\"}' > %s/oci-layout", dir, dir);
    snprintf(path, sizeof(path), "%s/index.json", dir);
    snprintf(text, sizeof(text), "%s%s,%s%s", head, entry, entry, tail);
    puts_to(path, text);
    for (i = 0; i < 3; i++) {
        CHECK_EQ(save(dir, i == 1 ? "v2" : "v1", i == 2 ? o : s, NULL), 0);
        now = get(path, NULL);
        CHECK(strstr(now, entry) != NULL && strstr(strstr(now, entry) + 1, entry) != NULL);
        CHECK(strncmp(now, start, strlen(start)) == 0);
        CHECK(strcmp(now + strlen(now) - strlen(end), end) == 0);
        free(now);
        CHECK_EQ(loads(dir, "v1"), 0);
    }
    CHECK_EQ(loads(dir, "v2"), 0);
    hlsnap_snapshot_release(s);
    hlsnap_snapshot_release(o);
}

static int count(const char *text, const char *what) { /* occurrences */
    int n = 0;
    for (; (text = strstr(text, what)) != NULL; text++) n++;
    return n;
}

static void tags_move(void) { /* the old manifest stays, untagged, once */
    const char *dir = fresh();
    hlsnap_snapshot *a = snapshot_new(1), *b = snapshot_new(2);
    char da[72], db[72], path[100], *index, *again;
    int i;
    snprintf(path, sizeof(path), "%s/index.json", dir);
    CHECK_EQ(save(dir, "v1", a, da), 0);
    index = get(path, NULL);
    CHECK_EQ(save(dir, "v1", a, da), 0); /* nothing to do */
    again = get(path, NULL);
    CHECK_STR(index, again);
    free(index), free(again);
    CHECK_EQ(save(dir, "keep", a, da), 0);
    for (i = 0; i < 6; i++) {
        CHECK_EQ(save(dir, "v1", i % 2 ? a : b, i % 2 ? da : db), 0);
        CHECK_EQ(loads(dir, da), 0);
        CHECK_EQ(loads(dir, db), 0);
        CHECK_EQ(loads(dir, "keep"), 0);
        index = get(path, NULL);
        CHECK_EQ(count(index, "\"v1\""), 1);
        CHECK(count(index, da) <= 3 && count(index, db) <= 2);
        free(index);
    }
    CHECK(tidy(dir));
    CHECK(sums_right(dir));
    hlsnap_snapshot_release(a);
    hlsnap_snapshot_release(b);
}

static void moved_tags_keep_annotations(void) {
    static const struct { const char *entries, *want; } rows[] = {
        {ENTRY0 ",\"annotations\":{\"a\":\"1\",\"org.opencontainers.image.ref.name\":\"v1\",\"b\":\"2\"},\"x\":7}",
         "[" ENTRY0 ",\"annotations\":{\"a\":\"1\",\"b\":\"2\"},\"x\":7},{"},
        {ENTRY0 "," TAGGED "}", "[" ENTRY0 ",\"annotations\":{}},{"},
        {ENTRY0 "," TAGGED "}," ENTRY0 "}", "[" ENTRY0 "},{"},                       /* one is there: no second */
        {ENTRY0 "," TAGGED "}," ENTRY0 "," TAGGED "}", "[" ENTRY0 ",\"annotations\":{}},{"}, /* tagged twice: healed */
        {ENTRY0 "," TAGGED ",\"annotation\":{}}", "[" ENTRY0 ",\"annotations\":{},\"annotation\":{}},{"}};
    hlsnap_snapshot *s = snapshot_new(1);
    size_t i;
    for (i = 0; i < HLSNAP_COUNT(rows); i++) {
        const char *dir = fresh();
        char path[100], text[3000], *now;
        sh("mkdir %s; echo '{\"imageLayoutVersion\":\"1.0.0\"}' > %s/oci-layout", dir, dir);
        snprintf(path, sizeof(path), "%s/index.json", dir);
        snprintf(text, sizeof(text), "{\"schemaVersion\":2,\"manifests\":[%s]}", rows[i].entries);
        puts_to(path, text);
        CHECK_EQ(save(dir, "v1", s, NULL), 0);
        now = get(path, NULL);
        if (!CHECK(strstr(now, rows[i].want) != NULL)) printf("#   %s\n", now);
        CHECK_EQ(count(now, "ref.name"), 1);
        free(now);
        CHECK_EQ(loads(dir, "v1"), 0);
    }
    hlsnap_snapshot_release(s);
}

static void heals_wrong_entry(void) { /* an entry of the right tag and digest but a wrong size is replaced */
    const char *dir = fresh();
    hlsnap_snapshot *s = snapshot_new(1);
    CHECK_EQ(save(dir, "v1", s, NULL), 0);
    CHECK_EQ(sh("sed -i 's/\"size\":[0-9]*/\"size\":1/' %s/index.json", dir), 0);
    CHECK_EQ(loads(dir, "v1"), HLSNAP_ERR_SIZE);
    CHECK_EQ(save(dir, "v1", s, NULL), 0);
    CHECK_EQ(loads(dir, "v1"), 0);
    hlsnap_snapshot_release(s);
}

static void heals_blobs(void) { /* what stands under a digest and is not its content is replaced, links are not followed */
    static const char *const breaks[] = {"printf x | dd of=$B conv=notrunc status=none", "truncate -s 1 $B", "truncate -s +1 $B",
        "cp $B out; rm $B; ln -s ../../../out $B", "rm $B; ln -s /dev/zero $B", "rm $B; ln -s nowhere $B", "rm $B; mkfifo $B", "rm $B",
        "chmod 0444 $B"};
    hlsnap_snapshot *s = snapshot_new(1);
    char d[72];
    size_t i;
    int k;
    for (i = 0; i < HLSNAP_COUNT(breaks); i++)
        for (k = 0; k < 4; k++) {
            const char *dir = fresh(), *digests[4];
            CHECK_EQ(save(dir, "v1", s, d), 0);
            read_texts(dir);
            digests[0] = memory_digest, digests[1] = chunks_digest, digests[2] = config_digest, digests[3] = manifest_digest;
            CHECK_EQ(sh("B=%s; %s", blob_path(dir, digests[k]), breaks[i]), 0);
            if (!CHECK_EQ(save(dir, "v1", s, NULL), 0)) printf("#   %s: %s\n", breaks[i], err.msg);
            CHECK_EQ(loads(dir, "v1"), 0);
            if (!CHECK(sums_right(dir) && tidy(dir))) printf("#   %s of %d\n", breaks[i], k);
        }
    {
        const char *dir = fresh();
        CHECK_EQ(save(dir, "v1", s, d), 0);
        CHECK_EQ(sh("B=%s; rm $B; mkdir $B", blob_path(dir, memory_digest)), 0);
        CHECK_EQ(save(dir, "v1", s, NULL), HLSNAP_ERR_FILE); /* a directory is not ours to remove */
        CHECK(tidy(dir));
    }
    hlsnap_snapshot_release(s);
}

static void loaded_snapshot_outlives_its_layout(void) {
    const char *dir = fresh();
    hlsnap_snapshot *s = snapshot_new(1), *p, *n;
    CHECK_EQ(save(dir, "v1", s, NULL), 0);
    CHECK_EQ(load_with(dir, "v1", HLSNAP_OCI_GUARD_PRIVATE, false, &p), 0);
    CHECK_EQ(load_with(dir, "v1", HLSNAP_OCI_GUARD_NONE, false, &n), 0);
    CHECK_EQ(sh("for f in %s/blobs/sha256/*; do truncate -s 0 $f; done; rm -rf %s", dir, dir), 0);
    if (p) check_same(s, p);
    if (n) {
        uint8_t page[P];
        CHECK_EQ(hlsnap__oci_read_pages(n, 0, 1, page, &err), HLSNAP_ERR_CHANGED); /* an error, not SIGBUS */
    }
    hlsnap_snapshot_release(p);
    hlsnap_snapshot_release(n);
    hlsnap_snapshot_release(s);
}

static void read_only(void) {
    const char *dir = fresh();
    hlsnap_snapshot *s = snapshot_new(1);
    CHECK_EQ(save(dir, "v1", s, NULL), 0);
    sh("rm %s/.hlsnap.lock", dir);
    if (geteuid() != 0 || sh("mount --bind %s %s 2>/dev/null && mount -o remount,ro,bind %s", dir, dir, dir) != 0) {
        hlsnap_snapshot_release(s);
        SKIP("cannot mount");
    }
    CHECK_EQ(loads(dir, "v1"), 0);
    CHECK_EQ(save(dir, "v2", s, NULL), HLSNAP_ERR_OS);
    CHECK_EQ(err.os_errno, EROFS);
    sh("umount %s", dir);
    CHECK(access(".hlsnap.lock", F_OK) != 0);
    hlsnap_snapshot_release(s);
}

static void other_mount(void) { /* allowed: a blob may lie on another file system, its digest decides */
    const char *dir = fresh();
    hlsnap_snapshot *s = snapshot_new(1);
    const char *blob;
    CHECK_EQ(save(dir, "v1", s, NULL), 0);
    read_texts(dir);
    blob = blob_path(dir, memory_digest);
    if (geteuid() != 0 || sh("cp %s mounted && mount --bind mounted %s 2>/dev/null", blob, blob) != 0) {
        hlsnap_snapshot_release(s);
        SKIP("cannot mount");
    }
    CHECK_EQ(loads(dir, "v1"), 0);
    CHECK_EQ(sh("printf x | dd of=mounted conv=notrunc status=none"), 0);
    CHECK_EQ(loads(dir, "v1"), HLSNAP_ERR_DIGEST);
    sh("umount %s", blob);
    CHECK_EQ(loads(dir, "v1"), 0);
    hlsnap_snapshot_release(s);
}

static void file_size_limit(void) { /* of this process, below the size of a layer: an error, not a signal */
    const char *dir = fresh();
    hlsnap_snapshot *s = snapshot_new(1), *other = snapshot_new(2);
    int status = 0;
    pid_t pid;
    CHECK_EQ(save(dir, "v1", s, NULL), 0);
    fflush(stdout);
    pid = fork();
    if (pid == 0) {
        struct rlimit limit = {65536, 65536};
        setrlimit(RLIMIT_FSIZE, &limit);
        _exit(loads(dir, "v1") != HLSNAP_ERR_OS || err.os_errno != EFBIG   ? 1
              : save(dir, "v2", other, NULL) != HLSNAP_ERR_OS || err.os_errno != EFBIG ? 2
                                                                             : 0);
    }
    CHECK(waitpid(pid, &status, 0) == pid);
    CHECK_EQ(status, 0);
    CHECK(tidy(dir));
    hlsnap_snapshot_release(s);
    hlsnap_snapshot_release(other);
}

static void leased(void) { /* a blob that somebody else holds a write lease on is refused for now, without waiting */
    const char *dir = fresh();
    hlsnap_snapshot *s = snapshot_new(1);
    bool lent;
    int fd;
    CHECK_EQ(save(dir, "v1", s, NULL), 0);
    read_texts(dir);
    signal(SIGIO, SIG_IGN);
    fd = open(blob_path(dir, memory_digest), O_RDWR);
    lent = fcntl(fd, F_SETLEASE, F_WRLCK) == 0;
    if (lent) {
        CHECK_EQ(loads(dir, "v1"), HLSNAP_ERR_OS);
        CHECK_EQ(err.os_errno, EAGAIN);
    }
    close(fd);
    CHECK_EQ(loads(dir, "v1"), 0);
    hlsnap_snapshot_release(s);
    if (!lent) SKIP("no leases here");
}

/* To open a device may be to use it, and an open FIFO lets somebody go on: what is no regular file is never opened. */
static void opens_only_files(void) {
    const char *names[4];
    size_t i;
    hlsnap_snapshot *s = snapshot_new(1);
    names[0] = manifest_digest, names[1] = config_digest, names[2] = chunks_digest, names[3] = memory_digest;
    for (i = 0; i < 4; i++) {
        const char *dir = fresh(), *path;
        struct inotify_event event;
        int watch = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
        CHECK_EQ(save(dir, "v1", s, NULL), 0);
        read_texts(dir);
        path = blob_path(dir, names[i]);
        CHECK_EQ(unlink(path), 0);
        CHECK_EQ(mkfifo(path, 0600), 0);
        CHECK(inotify_add_watch(watch, path, IN_OPEN) >= 0);
        CHECK_EQ(loads(dir, "v1"), HLSNAP_ERR_FILE);
        CHECK_EQ(hlsnap_oci_fsck(dir, false, &err), HLSNAP_ERR_FILE);
        CHECK_EQ(save(dir, "v2", s, NULL), 0); /* in its place comes a file */
        CHECK_EQ(loads(dir, "v2"), 0);
        CHECK_EQ(read(watch, &event, sizeof(event)), (ssize_t)sizeof(event)); /* the first one */
        CHECK_EQ(event.mask, IN_IGNORED);                                    /* it is gone, and was not opened */
        close(watch);
    }
    {
        const char *dir = fresh();
        char path[100], event[100];
        int watch = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
        CHECK_EQ(save(dir, "v1", s, NULL), 0);
        snprintf(path, sizeof(path), "%s/.hlsnap.lock", dir);
        CHECK_EQ(unlink(path), 0);
        CHECK_EQ(mkfifo(path, 0600), 0);
        CHECK(inotify_add_watch(watch, path, IN_OPEN) >= 0);
        CHECK_EQ(save(dir, "v2", s, NULL), HLSNAP_ERR_FILE);
        CHECK_EQ(hlsnap_oci_gc(dir, 0, NULL, &err), HLSNAP_ERR_FILE);
        CHECK_EQ(hlsnap_oci_fsck(dir, true, &err), HLSNAP_ERR_FILE);
        CHECK_EQ(read(watch, event, sizeof(event)), -1);
        CHECK_EQ(loads(dir, "v1"), 0);
        close(watch);
    }
    hlsnap_snapshot_release(s);
}

/* An index of many values costs time that grows with it, and is as good as any. */
static void many_values(void) {
    const char *dir = fresh();
    hlsnap_snapshot *s = snapshot_new(1);
    CHECK_EQ(save(dir, "v1", s, NULL), 0);
    CHECK_EQ(sh("{ python3 -c \"print('{\\\"x\\\":[' + '0,' * 2000000 + '0],', end='')\"; sed 's/^{//' %s/index.json; } > x && mv x %s/index.json", dir, dir), 0);
    CHECK_EQ(hlsnap_oci_tag(dir, "v1", "t0", &err), 0);
    CHECK_EQ(loads(dir, "v1"), 0);
    CHECK_EQ(loads(dir, "t0"), 0);
    hlsnap_snapshot_release(s);
}

/* To be looked at, a snapshot need not run here. */
static void other_cpus(void) {
    hlsnap_oci_desc desc = HLSNAP_ZERO;
    hlsnap_oci_info info;
    hlsnap_snapshot *s = snapshot_new(1), *t = NULL;
    const char *name, *last = "";
    size_t i;
    dir_now = fresh();
    CHECK_EQ(save(dir_now, "v1", s, NULL), 0);
    read_texts(dir_now);
    on_config("\"features\":[", "\"features\":[\"a0\",");
    CHECK_EQ(loads(dir_now, "v1"), HLSNAP_ERR_CPU);
    CHECK_EQ(hlsnap_oci_get_info(dir_now, "v1", &info, &err), HLSNAP_OK);
    desc.any_cpu = true;
    CHECK_EQ(hlsnap_oci_load(dir_now, "v1", &desc, &t, NULL, &err), HLSNAP_OK);
    for (i = 0; (name = hlsnap_snapshot_feature(t, i)) != NULL; i++) last = name;
    CHECK_STR(last, "unknown");
    CHECK_EQ(hlsnap_oci_save(dir_now, "v2", t, NULL, NULL, &err), HLSNAP_ERR_CPU); /* the name would be lost */
    CHECK_EQ(hlsnap_oci_flatten(dir_now, "v1", "v2", &desc, NULL, &err), HLSNAP_ERR_CPU);
    CHECK_EQ(loads(dir_now, "v2"), HLSNAP_ERR_NOT_FOUND);
    hlsnap_snapshot_release(t);
    hlsnap_snapshot_release(s);
}

/* A file that is nearly all hole takes no disk, but would be hashed for years. */
static void holes_are_bounded(void) {
    const char *dir = fresh();
    hlsnap_snapshot *s = snapshot_new(1);
    CHECK_EQ(save(dir, "v1", s, NULL), 0);
    hlsnap_snapshot_release(s);
    if (sh("truncate -s 9T %s/blobs/sha256/" HEX0 " 2>/dev/null", dir)) SKIP("no files of 9 TiB here");
    CHECK_EQ(hlsnap_oci_fsck(dir, false, &err), HLSNAP_ERR_LIMIT);
    CHECK_EQ(hlsnap_oci_fsck(dir, true, &err), HLSNAP_ERR_LIMIT);
    CHECK_EQ(sh("test -e %s/blobs/sha256/" HEX0, dir), 0); /* nor removed: it may be what its name says */
    CHECK_EQ(loads(dir, "v1"), 0);
}

static void size_is_bounded(void) {
    const char *dir = fresh();
    hlsnap_oci_desc desc = HLSNAP_ZERO;
    hlsnap_snapshot *s = snapshot_new(1), *t = NULL;
    CHECK_EQ(save(dir, "v1", s, NULL), 0);
    desc.max_bytes = 42 * 4096 - 1;
    CHECK_EQ(hlsnap_oci_load(dir, "v1", &desc, &t, NULL, &err), HLSNAP_ERR_LIMIT);
    CHECK(t == NULL);
    desc.max_bytes++;
    CHECK_EQ(hlsnap_oci_load(dir, "v1", &desc, &t, NULL, &err), HLSNAP_OK);
    hlsnap_snapshot_release(t);
    hlsnap_snapshot_release(s);
}

/* A hostile layout names its memory after a blob that another layout holds, with a chunk list of what it holds itself. */
static void borrowed_digest(void) {
    const char *a = fresh(), *b = fresh();
    hlsnap_snapshot *s = snapshot_new(1), *other = snapshot_new(2), *t, *again;
    char mine[72];
    int k;
    CHECK_EQ(save(b, "s", s, NULL), 0);
    CHECK_EQ(save(b, "other", other, NULL), 0);
    read_texts(b);
    memcpy(mine, memory_digest, 72);
    CHECK_EQ(save(a, "v1", other, NULL), 0);
    dir_now = a;
    read_texts(a);
    edit(&manifest_text, memory_digest, mine);
    CHECK_EQ(sh("mv %s %s", blob_path(a, memory_digest), blob_path(a, mine)), 0);
    write_manifest();
    CHECK_EQ(hlsnap_oci_load(a, "v1", NULL, &t, NULL, &err), 0);
    if (t) check_same(other, t);
    if (t) CHECK_EQ(save(b, "borrowed", t, NULL), 0);
    for (k = 0; k < 2 && t; k++) {
        if (!CHECK_EQ(load_with(b, "borrowed", HLSNAP_OCI_GUARD_PRIVATE, k, &again), 0)) printf("#   %s\n", err.msg);
        if (again) check_same(other, again);
        hlsnap_snapshot_release(again);
    }
    hlsnap_snapshot_release(t);
    hlsnap_snapshot_release(s);
    hlsnap_snapshot_release(other);
}

static void gc_keeps_what_is_tagged(void) { /* also where entries of other types name the same digest before */
    hlsnap_snapshot *s = snapshot_new(1);
    char text[600];
    uint64_t freed = 7;
    dir_now = fresh();
    CHECK_EQ(save(dir_now, "v1", s, NULL), 0);
    read_texts(dir_now);
    snprintf(text, sizeof(text), MANIFESTS "{\"mediaType\":\"a/b\",\"digest\":\"%s\",\"size\":2},{\"mediaType\":\"a/c\",\"digest\":\"%s\",\"size\":2},",
             manifest_digest, manifest_digest);
    on_index(MANIFESTS, text);
    CHECK_EQ(sh("touch -d '1 hour ago' %s/blobs/sha256/*; sleep 1.1", dir_now), 0);
    CHECK_EQ(hlsnap_oci_gc(dir_now, 0, &freed, &err), 0);
    CHECK_EQ(freed, 0);
    CHECK_EQ(loads(dir_now, "v1"), 0);
    hlsnap_snapshot_release(s);
}

static bool scribble(uint64_t done, uint64_t total, void *user) {
    uint64_t x = done ^ total;
    return pwrite(*(int *)user, &x, sizeof(x), (off_t)(done < total ? done : 0)) == sizeof(x);
}

static void source_changes_while_saved(void) { /* what is written is what was hashed: the result is sound, or there is none */
    static const hlsnap__extent e[] = {{16, 256, 0, 0}, {273, 4, 0, 256}};
    const char *a = fresh(), *b = fresh();
    hlsnap_snapshot *s = snapshot_over(guest_new(), layer_new(260, 5, 999), NULL, e, 2), *t;
    hlsnap_oci_desc d = HLSNAP_ZERO;
    int fd;
    CHECK_EQ(save(a, "v1", s, NULL), 0);
    read_texts(a);
    CHECK_EQ(load_with(a, "v1", HLSNAP_OCI_GUARD_NONE, false, &t), 0);
    fd = open(blob_path(a, memory_digest), O_WRONLY);
    d.progress = scribble;
    d.user = &fd;
    if (t && hlsnap_oci_save(b, "v1", t, &d, NULL, &err) == HLSNAP_OK) {
        CHECK_EQ(loads(b, "v1"), 0);
        CHECK(sums_right(b));
        CHECK(tidy(b));
    } else {
        CHECK_EQ(err.code, HLSNAP_ERR_CHANGED);
    }
    close(fd);
    hlsnap_snapshot_release(t);
    hlsnap_snapshot_release(s);
}

static void full_disk(void) { /* ENOSPC for real, on a tmpfs of 1 MiB */
    static const hlsnap__extent e[] = {{16, 256, 0, 100}, {273, 4, 0, 1000}};
    const char *dir = fresh();
    char path[100];
    hlsnap_snapshot *small, *big;
    if (geteuid() != 0 || sh("mkdir %s && mount -t tmpfs -o size=1m none %s 2>/dev/null", dir, dir) != 0) SKIP("cannot mount");
    snprintf(path, sizeof(path), "%s/l", dir);
    small = snapshot_new(1);
    big = snapshot_over(guest_new(), layer_new(1024, 78, 1), NULL, e, 2);
    CHECK_EQ(save(path, "v1", big, NULL), HLSNAP_ERR_OS);
    CHECK_EQ(err.os_errno, ENOSPC);
    CHECK(access(path, F_OK) != 0);
    CHECK_EQ(save(path, "v1", small, NULL), 0);
    CHECK_EQ(save(path, "v1", big, NULL), HLSNAP_ERR_OS);
    CHECK_EQ(loads(path, "v1"), 0);
    CHECK(tidy(path));
    sh("umount %s", dir);
    hlsnap_snapshot_release(small);
    hlsnap_snapshot_release(big);
}

static void fallbacks(void) { /* without O_TMPFILE, without openat2, with interrupted and short reads and writes */
    int i;
    for (i = 0; i < 3; i++) {
        const char *dir = fresh();
        hlsnap_snapshot *s = snapshot_new(1), *o = snapshot_new(2), *t;
        no_tmpfile = i == 0;
        no_openat2 = i == 1;
        short_io = i == 2;
        CHECK_EQ(save(dir, "v1", s, NULL), 0);
        CHECK_EQ(save(dir, "v1", o, NULL), 0);
        CHECK_EQ(save(dir, "v2", s, NULL), 0);
        CHECK_EQ(hlsnap_oci_load(dir, "v2", NULL, &t, NULL, &err), 0);
        if (t) check_same(s, t);
        CHECK(tidy(dir));
        CHECK(sums_right(dir));
        no_tmpfile = no_openat2 = short_io = false;
        hlsnap_snapshot_release(t);
        hlsnap_snapshot_release(s);
        hlsnap_snapshot_release(o);
    }
    no_openat2 = true;
    if (!getenv("QUICK")) hostile_layouts(); /* links are refused component by component too */
    no_openat2 = false;
    no_tmpfile = true;
    heals_blobs();
    refuses_and_leaves_alone();
    no_tmpfile = false;
}

/* ---- many at once ---- */

static void saver(const char *dir, int number, int saves) {
    hlsnap_snapshot *s = snapshot_new((uint64_t)number % 2); /* two pairs of the same content */
    hlsnap_error e;
    char tag[40];
    int i;
    for (i = 0; i < saves; i++) {
        snprintf(tag, sizeof(tag), "p%d-%d", number, i);
        if (hlsnap_oci_save(dir, tag, s, NULL, NULL, &e) || (i % 8 == 0 && hlsnap_oci_save(dir, "same", s, NULL, NULL, &e))) {
            printf("# %s\n", e.msg);
            fflush(stdout);
            _exit(1);
        }
    }
    _exit(0);
}

static void four_savers(const char *dir, int saves) {
    int i, k, status;
    for (i = 0; i < 4; i++) {
        fflush(stdout);
        if (fork() == 0) saver(dir, i, saves);
    }
    for (i = 0; i < 4; i++) {
        CHECK(wait(&status) > 0);
        CHECK_EQ(status, 0);
    }
    for (i = 0; i < 4; i++)
        for (k = 0; k < saves; k++) {
            char tag[40];
            snprintf(tag, sizeof(tag), "p%d-%d", i, k);
            if (!CHECK_EQ(loads(dir, tag), 0)) return;
        }
    CHECK_EQ(loads(dir, "same"), 0); /* whoever was last */
    CHECK(tidy(dir));
    CHECK(sums_right(dir));
}

static void concurrent_saves(void) { four_savers(fresh(), 50); }

static void concurrent_saves_named(void) {
    no_tmpfile = true;
    four_savers(fresh(), 50);
    no_tmpfile = false;
}

/* Half of the savers cancel, also in a directory that they made: those that do not must not notice. */
static void concurrent_cancels(void) {
    const char *dir = fresh();
    int i, k, status;
    for (i = 0; i < 4; i++) {
        fflush(stdout);
        if (fork() != 0) continue;
        for (k = 0; k < 60; k++) {
            hlsnap_snapshot *s = snapshot_new((uint64_t)k);
            hlsnap_oci_desc d = HLSNAP_ZERO;
            progress p;
            memset(&p, 0, sizeof(p));
            p.stop = 1;
            d.progress = i % 2 ? NULL : on_progress;
            d.user = &p;
            if (hlsnap_oci_save(dir, i % 2 ? "x" : "y", s, &d, NULL, &err) != (i % 2 ? HLSNAP_OK : HLSNAP_ERR_CANCELLED)) {
                printf("# %s\n", err.msg);
                fflush(stdout);
                _exit(1);
            }
            hlsnap_snapshot_release(s);
            if (i == 3 && k % 8 == 7) sh("rm -rf %s/none", dir);
        }
        _exit(0);
    }
    for (i = 0; i < 4; i++) {
        CHECK(wait(&status) > 0);
        CHECK_EQ(status, 0);
    }
    CHECK_EQ(loads(dir, "x"), 0);
    CHECK_EQ(loads(dir, "y"), HLSNAP_ERR_NOT_FOUND);
    CHECK(tidy(dir));
}

static void cleaning_savers_do_not_harm(void) { /* the lock file, or the directory, goes while this save opens it */
    hlsnap_snapshot *s = snapshot_new(1);
    int what;
    for (what = 1; what <= 3; what++) {
        const char *dir = fresh();
        char path[100];
        lock_opens = 0;
        other_failed = what;
        other_dir = dir;
        if (!CHECK_EQ(save(dir, "v1", s, NULL), 0)) printf("# %s\n", err.msg);
        CHECK_EQ(other_failed, 0);
        CHECK(lock_opens >= 2);
        snprintf(path, sizeof(path), "%s/.hlsnap.lock", dir);
        CHECK(access(path, F_OK) == 0); /* the lock that was held is the one that others find */
        CHECK_EQ(loads(dir, "v1"), 0);
        CHECK(tidy(dir));
    }
    hlsnap_snapshot_release(s);
}

static void readers_while_saving(void) { /* a tag that moves is one or the other at any moment */
    const char *dir = fresh();
    hlsnap_snapshot *a = snapshot_new(1), *b = snapshot_new(2);
    int i, status;
    pid_t pid;
    CHECK_EQ(save(dir, "v1", a, NULL), 0);
    fflush(stdout);
    pid = fork();
    if (pid == 0) {
        for (i = 0; i < 100; i++)
            if (save(dir, "v1", i % 2 ? a : b, NULL)) _exit(1);
        _exit(0);
    }
    for (i = 0; i < 300; i++)
        if (!CHECK_EQ(loads(dir, "v1"), 0)) printf("# %s\n", err.msg);
    CHECK(waitpid(pid, &status, 0) == pid);
    CHECK_EQ(status, 0);
    hlsnap_snapshot_release(a);
    hlsnap_snapshot_release(b);
}

static void vanished_blob_is_retried(void) { /* a collector came between a reader's look at the index and at the blobs */
    const char *dir = fresh(), *blobs[4];
    hlsnap_snapshot *s = snapshot_new(1);
    int i;
    CHECK_EQ(save(dir, "v1", s, NULL), 0);
    read_texts(dir);
    blobs[0] = memory_digest + 7, blobs[1] = chunks_digest + 7, blobs[2] = config_digest + 7, blobs[3] = manifest_digest + 7;
    for (i = 0; i < 4; i++) {
        vanish = blobs[i];
        vanish_times = 1;
        CHECK_EQ(loads(dir, "v1"), 0);
        CHECK_EQ(vanish_times, 0);
        vanish_times = 2;
        CHECK_EQ(loads(dir, "v1"), HLSNAP_ERR_FILE);
        CHECK_EQ(err.os_errno, ENOENT);
        CHECK_EQ(vanish_times, 0);
    }
    hlsnap_snapshot_release(s);
}

/* A saver that is killed at any moment leaves a layout that loads and that the next save uses. */
static void killed_savers(void) {
    const char *dir = fresh();
    hlsnap_snapshot *a = snapshot_new(1), *b = snapshot_new(2);
    uint64_t seed = 5;
    int round, status;
    CHECK_EQ(save(dir, "v1", a, NULL), 0);
    for (round = 0; round < 150; round++) {
        pid_t pid;
        int i;
        no_tmpfile = round % 2;
        fflush(stdout);
        pid = fork();
        if (pid == 0) {
            for (i = 0; i < 1000; i++)
                if (save(dir, "v1", i % 2 ? a : b, NULL)) _exit(1);
            _exit(0);
        }
        usleep((useconds_t)(lcg(&seed) % 20000));
        kill(pid, SIGKILL);
        CHECK(waitpid(pid, &status, 0) == pid);
        if (!CHECK_EQ(loads(dir, "v1"), 0)) printf("# %s\n", err.msg);
        if (round % 10 == 9) CHECK_EQ(save(dir, "v1", round % 20 > 9 ? a : b, NULL), 0);
    }
    no_tmpfile = false;
    CHECK(sums_right(dir));
    CHECK_EQ(sh("rm -rf %s/.hlsnap-*", dir), 0); /* what a kill may leave, never among the blobs */
    CHECK(tidy(dir));
    hlsnap_snapshot_release(a);
    hlsnap_snapshot_release(b);
}

/* The order that survives a power loss: content, names, directories, then the index, then its directory. */
static void order_of_syncs(void) {
    const char *dir = fresh(), *from = fresh();
    hlsnap_snapshot *s = snapshot_new(1);
    struct stat root, blobs, sha256, parent;
    char path[100], want[200], *rename_at, *link_at;
    int n, i;
    CHECK_EQ(save(from, "v1", s, NULL), 0);
    for (n = 0; n < 6; n++) { /* copies, and then saves */
        i = n % 3;
        if (n == 3) sh("rm -r %s", dir);
        no_tmpfile = i == 2;
        if (i == 1) sh("rm -r %s", dir);
        if (i == 2) sh("rm %s/blobs/sha256/*", dir);
        events[0] = 0;
        recording = true;
        CHECK_EQ(n < 3 ? hlsnap_oci_copy(from, "v1", dir, NULL, NULL, NULL, &err) : save(dir, "v1", s, NULL), 0);
        recording = no_tmpfile = false;
        CHECK_EQ(stat(dir, &root), 0);
        CHECK_EQ(stat(".", &parent), 0);
        snprintf(path, sizeof(path), "%s/blobs", dir);
        CHECK_EQ(stat(path, &blobs), 0);
        snprintf(path, sizeof(path), "%s/blobs/sha256", dir);
        CHECK_EQ(stat(path, &sha256), 0);
        link_at = strstr(events, "link ");
        rename_at = strstr(events, "rename index.json");
        if (!CHECK(link_at && rename_at)) break;
        CHECK_EQ(count(events, "link 0") + count(events, "link 1") + count(events, "link 2") + count(events, "link 3") +
                 count(events, "link 4") + count(events, "link 5") + count(events, "link 6") + count(events, "link 7") +
                 count(events, "link 8") + count(events, "link 9") + count(events, "link a") + count(events, "link b") +
                 count(events, "link c") + count(events, "link d") + count(events, "link e") + count(events, "link f"), 4);
        *link_at = 0;
        CHECK_EQ(count(events, "sync"), i < 2 ? 5 : 4); /* all four blobs, before the first name */
        snprintf(want, sizeof(want), "sync %ld;", (long)root.st_ino); /* where there is no index, last the lock file, which says so */
        CHECK_EQ(link_at - events >= (long)strlen(want) && strcmp(link_at - strlen(want), want) == 0, i < 2);
        *link_at = 'l';
        snprintf(want, sizeof(want), "sync %ld;sync %ld;sync %ld;sync", (long)sha256.st_ino, (long)blobs.st_ino, (long)root.st_ino);
        CHECK(strstr(link_at, want) != NULL && strstr(link_at, want) < rename_at);
        if (i < 2) CHECK(strstr(link_at, "rename oci-layout;sync ") != NULL && strstr(link_at, "rename oci-layout;sync ") < strstr(link_at, want));
        snprintf(want, sizeof(want), "sync %ld;sync %ld;", (long)root.st_ino, (long)parent.st_ino);
        /* also by who comes after one that was killed before it had an index */
        CHECK((strstr(link_at, want) != NULL && strstr(link_at, want) < rename_at) == (i < 2));
        snprintf(want, sizeof(want), "rename index.json;sync %ld;", (long)root.st_ino);
        if (!CHECK_STR(rename_at, want)) printf("# %s\n", events);
    }
    events[0] = 0;
    recording = true;
    CHECK_EQ(save(dir, "v2", s, NULL), 0); /* the blob that this very snapshot was saved to: known and synced */
    read_texts(dir);
    CHECK_EQ(stat(blob_path(dir, memory_digest), &root), 0);
    snprintf(want, sizeof(want), "sync %ld;", (long)root.st_ino);
    CHECK(strstr(events, want) == NULL);
    hlsnap_snapshot_release(s);
    s = snapshot_new(1);
    events[0] = 0;
    CHECK_EQ(save(dir, "v3", s, NULL), 0); /* blobs that were there: their writer may not have synced them */
    recording = false;
    CHECK(strstr(events, want) != NULL && strstr(events, want) < strstr(events, "rename index.json"));
    hlsnap_snapshot_release(s);
}

/* ---- injected failures ---- */

static void failing_allocations(void) {
    const char *dir = fresh();
    hlsnap_snapshot *a = snapshot_new(1), *b = snapshot_new(2), *t;
    long k, live, points;
    char first[60000];
    hlsnap_result r;
    CHECK_EQ(save(dir, "v1", a, NULL), 0);
    strcpy(first, names(dir));
    live = alloc_live;
    for (k = 0;; k++) {
        alloc_count = 0;
        alloc_fail = k;
        r = save(dir, "v1", b, NULL);
        alloc_fail = -1;
        if (r == HLSNAP_OK) break; /* or no memory for what b's layers might remember: they may do without */
        CHECK_EQ(alloc_live, live);
        CHECK_EQ(r, HLSNAP_ERR_MEMORY);
        CHECK_STR(names(dir), first);
    }
    printf("# save: %ld allocations\n", k);
    CHECK(k >= 8);
    live = alloc_live; /* b's layers may remember where they were saved */
    for (k = points = 0;; k++) {
        alloc_count = 0;
        alloc_fail = k;
        r = hlsnap_oci_load(dir, "v1", NULL, &t, NULL, &err);
        alloc_fail = -1;
        if (r == HLSNAP_OK) break;
        CHECK_EQ(r, HLSNAP_ERR_MEMORY);
        CHECK(t == NULL);
        CHECK_EQ(alloc_live, live);
    }
    printf("# load: %ld allocations\n", k);
    CHECK(k >= 15);
    hlsnap_snapshot_release(t);
    hlsnap_snapshot_release(a);
    hlsnap_snapshot_release(b);
}

static long cjson_left = -1;
static void *cjson_malloc(size_t n) { return cjson_left >= 0 && cjson_left-- == 0 ? NULL : malloc(n); }

static void failing_cjson(void) { /* cJSON's own allocations; only a test may set its hooks */
    const char *dir = fresh();
    cJSON_Hooks hooks;
    hlsnap_snapshot *s = snapshot_new(1), *t;
    long k;
    hooks.malloc_fn = cjson_malloc;
    hooks.free_fn = free;
    CHECK_EQ(save(dir, "v1", s, NULL), 0);
    cJSON_InitHooks(&hooks);
    for (k = 0; k < 5000; k += k < 30 ? 1 : 37) {
        hlsnap_result r;
        cjson_left = k;
        r = hlsnap_oci_load(dir, "v1", NULL, &t, NULL, &err);
        if (r == HLSNAP_OK) break;
        CHECK_EQ(r, HLSNAP_ERR_MEMORY);
    }
    cjson_left = -1;
    cJSON_InitHooks(NULL);
    CHECK(k > 60 && k < 5000);
    hlsnap_snapshot_release(t);
    hlsnap_snapshot_release(s);
}

static long failing_syscalls_of_save(const char *tag, bool existing, int number) {
    static char first[60000];
    const char *dir = fresh();
    hlsnap_snapshot *a = snapshot_new(1), *b = snapshot_new(2);
    long k, passed = 0;
    int fds = dup(0);
    close(fds);
    for (k = 0;; k++) {
        hlsnap_result r;
        char d[72] = "";
        int now;
        long used;
        rm_rf(dir);
        if (existing) CHECK_EQ(save(dir, "v1", a, NULL), 0);
        strcpy(first, names(dir));
        sys_errno = number;
        sys_count = 0;
        sys_fail = k;
        r = save(dir, tag, b, d);
        used = sys_count;
        sys_fail = -1;
        now = dup(0);
        close(now);
        CHECK_EQ(now, fds); /* no descriptor leaks */
        if (used <= k) {
            CHECK_EQ(r, 0);
            break;
        }
        passed += r == 0;
        if (r == HLSNAP_OK) {
            CHECK_EQ(loads(dir, tag), 0);
        } else if (loads(dir, tag) == HLSNAP_OK && strcmp(names(dir), first) != 0) { /* the very last fsync */
            CHECK_EQ(r, HLSNAP_ERR_OS);
        } else if (!CHECK(strcmp(names(dir), first) == 0)) {
            printf("#   call %ld (%s) left:\n%s", k, err.msg, names(dir));
        }
        if (existing) CHECK_EQ(loads(dir, "v1"), 0);
        if (access(dir, F_OK) == 0 && !CHECK(tidy(dir))) printf("#   call %ld: %s\n", k, err.msg);
    }
    printf("# save as %s, errno %d%s: %ld system calls, %ld may fail\n", tag, number, no_tmpfile ? ", named temporaries" : "", k, passed);
    hlsnap_snapshot_release(a);
    hlsnap_snapshot_release(b);
    return k;
}

static void failing_syscalls(void) {
    static const int numbers[] = {EIO, ENOSPC, EMFILE};
    const char *dir = fresh();
    hlsnap_snapshot *s = snapshot_new(1), *t;
    size_t i;
    long k, live;
    int fds, now, survived = 0;
    for (i = 0; i < 6; i++) {
        no_tmpfile = i >= 3;
        CHECK(failing_syscalls_of_save("v1", true, numbers[i % 3]) >= 60);
        CHECK(failing_syscalls_of_save("v2", true, numbers[i % 3]) >= 60);
        CHECK(failing_syscalls_of_save("v1", false, numbers[i % 3]) >= 50);
    }
    no_tmpfile = false;
    CHECK_EQ(save(dir, "v1", s, NULL), 0);
    live = alloc_live;
    close(fds = dup(0));
    for (i = 0; i < 3; i++)
        for (k = 0;; k++) {
            hlsnap_result r;
            sys_errno = numbers[i];
            sys_count = 0;
            sys_fail = k;
            r = load_with(dir, "v1", HLSNAP_OCI_GUARD_PRIVATE, false, &t);
            sys_fail = -1;
            CHECK_EQ(r == HLSNAP_OK, t != NULL);
            hlsnap_snapshot_release(t);
            if (sys_count <= k) break;
            CHECK(r == HLSNAP_ERR_OS || r == HLSNAP_ERR_MEMORY || r == HLSNAP_OK); /* MEMORY: mmap; OK: no clone, a copy then */
            survived += r == HLSNAP_OK;
            CHECK_EQ(alloc_live, live);
            close(now = dup(0));
            CHECK_EQ(now, fds); /* no descriptor leaks */
        }
    printf("# load: %ld system calls\n", k);
    CHECK(k >= 30);
    CHECK_EQ(survived, 3 * 5); /* the three that make a clone, which this file system may not have, and two looks at the times */
    hlsnap_snapshot_release(s);
}

static void random_damage(void) { /* any byte of any file changed: an error or the same snapshot, nothing else */
    hlsnap_snapshot *s = snapshot_new(1), *t;
    const char *origin = fresh(), *files[6];
    char path[6][100];
    uint64_t seed = 11;
    int round, loaded = 0;
    size_t i;
    CHECK_EQ(save(origin, "v1", s, NULL), 0);
    read_texts(origin);
    sh("rm -rf damaged; cp -a %s damaged", origin);
    snprintf(path[0], 100, "damaged/oci-layout");
    snprintf(path[1], 100, "damaged/index.json");
    snprintf(path[2], 100, "damaged/blobs/sha256/%s", manifest_digest + 7);
    snprintf(path[3], 100, "damaged/blobs/sha256/%s", config_digest + 7);
    snprintf(path[4], 100, "damaged/blobs/sha256/%s", chunks_digest + 7);
    snprintf(path[5], 100, "damaged/blobs/sha256/%s", memory_digest + 7);
    for (i = 0; i < 6; i++) files[i] = path[i];
    for (round = 0; round < 3000; round++) {
        const char *file = files[lcg(&seed) % 6];
        size_t n;
        char *data = get(file, &n);
        size_t at = lcg(&seed) % n;
        char old = data[at];
        int fd = open(file, O_WRONLY), verify = (int)(lcg(&seed) % 2);
        hlsnap_result r;
        data[at] = (char)(lcg(&seed) % 3 ? (uint64_t)(old ^ 1 << lcg(&seed) % 8) : (uint64_t)"\"{}[],:0-\\u"[lcg(&seed) % 11]);
        CHECK_EQ(pwrite(fd, data + at, 1, (off_t)at), 1);
        r = load_with("damaged", "v1", HLSNAP_OCI_GUARD_PRIVATE, !verify, &t);
        if (r == HLSNAP_OK && verify) check_same(s, t);
        CHECK_EQ(r == HLSNAP_OK, t != NULL);
        loaded += r == HLSNAP_OK;
        hlsnap_snapshot_release(t);
        CHECK_EQ(pwrite(fd, &old, 1, (off_t)at), 1);
        close(fd);
        free(data);
    }
    printf("# %d of 3000 still loaded (mostly unverified memory)\n", loaded);
    hlsnap_snapshot_release(s);
}

/* ---- other tools ---- */

static void skopeo_copies(void) {
    hlsnap_snapshot *s = snapshot_new(1), *t;
    const char *a = fresh(), *b = fresh();
    hlsnap_oci_digest digest;
    char d[72];
    if (sh("command -v skopeo >/dev/null") != 0) {
        hlsnap_snapshot_release(s);
        SKIP("no skopeo");
    }
    CHECK_EQ(save(a, "v1", s, d), 0);
    CHECK_EQ(sh("skopeo copy -q oci:%s:v1 oci:%s:w1 >skopeo.log 2>&1 || { sed 's/^/# /' skopeo.log; false; }", a, b), 0);
    CHECK_EQ(hlsnap_oci_load(b, "w1", NULL, &t, &digest, &err), 0);
    if (t) {
        CHECK_STR(digest.text, d);
        check_same(s, t);
    }
    CHECK_EQ(save(b, "w2", s, d), 0); /* into a layout that skopeo wrote */
    CHECK_STR(digest.text, d);
    CHECK_EQ(loads(b, "w1"), 0);
    CHECK_EQ(sh("skopeo inspect --raw oci:%s:w2 | sha256sum | grep -q %s", b, d + 7), 0);
    hlsnap_snapshot_release(t);
    hlsnap_snapshot_release(s);
}

static void umoci_lists(void) {
    hlsnap_snapshot *s = snapshot_new(1), *o = snapshot_new(2);
    const char *a = fresh();
    if (sh("command -v umoci >/dev/null") != 0) {
        hlsnap_snapshot_release(s);
        hlsnap_snapshot_release(o);
        SKIP("no umoci");
    }
    CHECK_EQ(save(a, "v1", s, NULL), 0);
    CHECK_EQ(save(a, "v2", o, NULL), 0);
    CHECK_EQ(sh("[ \"$(umoci ls --layout %s | sort | tr '\\n' ' ')\" = 'v1 v2 ' ]", a), 0);
    CHECK_EQ(sh("umoci tag --image %s:v1 v3 >umoci.log 2>&1 && umoci rm --image %s:v2 >>umoci.log 2>&1 && umoci gc --layout %s >>umoci.log 2>&1", a, a, a), 0);
    CHECK_EQ(loads(a, "v1"), 0);
    CHECK_EQ(loads(a, "v3"), 0);
    CHECK_EQ(loads(a, "v2"), HLSNAP_ERR_NOT_FOUND);
    CHECK_EQ(save(a, "v2", o, NULL), 0);
    CHECK_EQ(loads(a, "v2"), 0);
    hlsnap_snapshot_release(s);
    hlsnap_snapshot_release(o);
}

/* The manifest as it is documented: order, no blanks, sorted annotations, none of what Go's marshaller would rewrite. */
static void manifest_form(void) {
    hlsnap_snapshot *s = snapshot_new(1);
    const char *dir = fresh();
    char want[2000];
    CHECK_EQ(save(dir, "v1", s, NULL), 0);
    read_texts(dir);
    snprintf(want, sizeof(want),
             "{\"schemaVersion\":2,\"mediaType\":\"application/vnd.oci.image.manifest.v1+json\",\"artifactType\":"
             "\"application/vnd.hlsnap.snapshot.v1\",\"config\":{\"mediaType\":\"application/vnd.hlsnap.snapshot.config.v1+json\","
             "\"digest\":\"%s\",\"size\":%zu},\"layers\":[{\"mediaType\":\"application/vnd.hlsnap.snapshot.memory.v1\",\"digest\":\"%s\","
             "\"size\":172032,\"annotations\":{\"org.opencontainers.image.title\":\"layer0.mem\"}},{\"mediaType\":"
             "\"application/vnd.hlsnap.snapshot.chunks.v1\",\"digest\":\"%s\",\"size\":96,\"annotations\":"
             "{\"org.opencontainers.image.title\":\"layer0.chunks\"}}],\"annotations\":{\"dev.hlsnap.abi\":\"2\",\"dev.hlsnap.arch\":"
             "\"" HLSNAP__OCI_ARCH "\",\"dev.hlsnap.build-id\":\"0123456789abcdef0123456789abcdef01234567\","
             "\"dev.hlsnap.cpu.vendor\":\"AMDisbetter!\",\"dev.hlsnap.hypervisor\":\"some_vm-1.0+x\",\"dev.hlsnap.library\":\"0.3.0\","
             "\"dev.hlsnap.version\":\"3\"}}",
             config_digest, strlen(config_text), memory_digest, chunks_digest);
    CHECK_STR(manifest_text, want);
    CHECK_STR(marker_text, "{\"imageLayoutVersion\":\"1.0.0\"}");
    CHECK(strpbrk(manifest_text, "<>& \n") == NULL);
    snprintf(want, sizeof(want),
             "{\"schemaVersion\":2,\"mediaType\":\"application/vnd.oci.image.index.v1+json\",\"manifests\":[{\"mediaType\":"
             "\"application/vnd.oci.image.manifest.v1+json\",\"digest\":\"%s\",\"size\":%zu,\"annotations\":"
             "{\"org.opencontainers.image.ref.name\":\"v1\"},\"artifactType\":\"application/vnd.hlsnap.snapshot.v1\"}]}",
             manifest_digest, strlen(manifest_text));
    CHECK_STR(index_text, want);
    CHECK(strstr(config_text, "\"}],\"extents\":[[0,4,0,0],[4,2,0,4],[6,3,0,6],[20,4,0,9],[25,27,0,13],[100,1,0,44],[276,1,0,") == NULL);
    CHECK(strstr(config_text, ",\"extents\":[[0,4,0,0],[4,2,0,4],[6,3,0,6],[20,4,0,9],[25,27,0,13],[100,1,0,40],[276,1,0,41]],\"maps\":[]}") == NULL ||
          strstr(config_text, "\"layers\":[{\"pages\":42,"));
    if (getenv("SHOW")) printf("# %s\n# %s\n# %s\n", index_text, manifest_text, config_text);
    hlsnap_snapshot_release(s);
}

/* The last HEAVY ones are left out with QUICK=1 (under valgrind): thousands of processes, exhaustive loops, limits. */
#define HEAVY 14
static int blobs_in(const char *dir) {
    const char *at = names(dir);
    int n = 0;
    while ((at = strstr(at, "blobs/sha256/")) != NULL) n++, at++;
    return n;
}

/* Byte for byte, with its digest; what is there is shared; tags as they are asked for. */
static void copy_whole(void) {
    const char *from = fresh(), *to = fresh(), *bare = fresh();
    hlsnap_snapshot *a = snapshot_new(1), *b = snapshot_new(2);
    hlsnap_oci_digest d, first;
    char digest[72];
    CHECK_EQ(save(from, "v1", a, digest), 0);
    CHECK_EQ(save(from, "v2", b, NULL), 0);
    CHECK_EQ(hlsnap_oci_copy(from, "v1", to, NULL, NULL, &d, &err), 0);
    CHECK_STR(d.text, digest);
    CHECK(blobs_in(to) == 4 && tidy(to) && sums_right(to));
    CHECK_EQ(sh("cd %s/blobs/sha256 && for f in *; do cmp $f ../../../%s/blobs/sha256/$f || exit 1; done", to, from), 0);
    CHECK_EQ(loads(to, "v1"), 0);
    CHECK_EQ(hlsnap_oci_copy(from, digest, to, "again", NULL, NULL, &err), 0);
    CHECK_EQ(hlsnap_oci_copy(from, "v2", to, "v1", NULL, &d, &err), 0); /* moves it */
    CHECK_EQ(hlsnap_oci_copy(to, "again", to, "third", NULL, &first, &err), 0); /* within one layout */
    CHECK_STR(first.text, digest);
    CHECK_EQ(hlsnap_oci_fsck(to, false, &err), 0);
    CHECK(loads(to, "v1") == 0 && loads(to, "again") == 0 && loads(to, "third") == 0 && blobs_in(to) == 8);
    CHECK_EQ(hlsnap_oci_copy(from, digest, bare, NULL, NULL, NULL, &err), 0); /* listed by its digest, once */
    CHECK_EQ(hlsnap_oci_copy(from, digest, bare, NULL, NULL, NULL, &err), 0);
    CHECK_EQ(sh("[ $(grep -o '\"digest\"' %s/index.json | wc -l) = 1 ] && ! grep -q ref.name %s/index.json", bare, bare), 0);
    CHECK_EQ(loads(bare, digest), 0);
    CHECK_EQ(hlsnap_oci_fsck(bare, false, &err), 0);
    CHECK_EQ(hlsnap_oci_copy(from, "v1", bare, NULL, NULL, NULL, &err), 0);
    CHECK_EQ(loads(bare, "v1"), 0);
    hlsnap_snapshot_release(a);
    hlsnap_snapshot_release(b);
}

/* Damaged blobs of the target are replaced, the source's are refused; desc and arguments. */
static void copy_is_checked(void) {
    const char *from = fresh(), *to = fresh(), *none = fresh();
    static const hlsnap__extent e[] = {{16, 256, 0, 100}, {273, 4, 0, 1000}};
    hlsnap_snapshot *s = snapshot_over(guest_new(), layer_new(1024, 78, 1), NULL, e, 2);
    hlsnap_oci_desc desc = HLSNAP_ZERO;
    progress p;
    CHECK_EQ(save(from, "v1", s, NULL), 0);
    CHECK_EQ(hlsnap_oci_copy(from, "v1", to, NULL, NULL, NULL, &err), 0);
    CHECK_EQ(sh("for f in %s/blobs/sha256/*; do chmod 600 $f; printf x | dd of=$f conv=notrunc bs=1 seek=5; done 2>/dev/null", to), 0);
    CHECK_EQ(loads(to, "v1"), HLSNAP_ERR_DIGEST);
    CHECK_EQ(hlsnap_oci_copy(from, "v1", to, NULL, NULL, NULL, &err), 0);
    CHECK(loads(to, "v1") == 0 && sums_right(to) && tidy(to));
    CHECK_EQ(sh("cd %s/blobs/sha256 && f=$(ls -S | head -n 1) && rm $f && ln -s ../../../%s/blobs/sha256/$f $f", to, from), 0);
    CHECK_EQ(hlsnap_oci_copy(from, "v1", to, NULL, NULL, NULL, &err), 0);
    CHECK(loads(to, "v1") == 0 && sums_right(to));
    memset(&p, 0, sizeof(p));
    desc.progress = on_progress;
    desc.user = &p;
    CHECK_EQ(hlsnap_oci_copy(from, "v1", to, "v2", &desc, NULL, &err), 0);
    CHECK(!p.backwards && p.last == p.total && p.total > 0 && p.calls >= 2);
    desc.max_bytes = p.total;
    memset(&p, 0, sizeof(p));
    p.stop = 2;
    CHECK_EQ(hlsnap_oci_copy(from, "v1", none, NULL, &desc, NULL, &err), HLSNAP_ERR_CANCELLED);
    CHECK(access(none, F_OK) != 0);
    desc.max_bytes--;
    CHECK_EQ(hlsnap_oci_copy(from, "v1", none, NULL, &desc, NULL, &err), HLSNAP_ERR_LIMIT);
    CHECK(strstr(err.msg, "hlsnap_oci_copy: ") == err.msg && strstr(err.msg, from));
    CHECK_EQ(hlsnap_oci_copy(from, "v7", none, NULL, NULL, NULL, &err), HLSNAP_ERR_NOT_FOUND);
    CHECK_EQ(hlsnap_oci_copy("nowhere", "v1", none, NULL, NULL, NULL, &err), HLSNAP_ERR_NOT_FOUND);
    CHECK_EQ(hlsnap_oci_copy(from, "v 1", none, NULL, NULL, NULL, &err), HLSNAP_ERR_ARG);
    CHECK_EQ(hlsnap_oci_copy(from, "v1", none, "a:b", NULL, NULL, &err), HLSNAP_ERR_ARG);
    CHECK_EQ(hlsnap_oci_copy(NULL, "v1", none, NULL, NULL, NULL, &err), HLSNAP_ERR_ARG);
    CHECK_EQ(hlsnap_oci_copy(from, NULL, none, NULL, NULL, NULL, &err), HLSNAP_ERR_ARG);
    CHECK_EQ(hlsnap_oci_copy(from, "v1", NULL, NULL, NULL, NULL, &err), HLSNAP_ERR_ARG);
    CHECK(access(none, F_OK) != 0);
    CHECK_EQ(hlsnap_oci_copy(from, "v1", "nowhere/x", NULL, NULL, NULL, &err), HLSNAP_ERR_FILE);
    CHECK(strstr(err.msg, "nowhere/x") != NULL);
    puts_to("plain", "x");
    CHECK_EQ(hlsnap_oci_copy(from, "v1", "plain", NULL, NULL, NULL, &err), HLSNAP_ERR_FILE);
    desc.max_bytes = 0;
    desc.progress = NULL;
    desc.disable_verify = true; /* not looked at */
    CHECK_EQ(sh("cd %s/blobs/sha256 && f=$(ls -S | head -n 1) && chmod 600 $f && printf x | dd of=$f conv=notrunc bs=1 seek=5 "
                "2>/dev/null", from), 0);
    CHECK_EQ(hlsnap_oci_copy(from, "v1", none, NULL, &desc, NULL, &err), HLSNAP_ERR_DIGEST);
    CHECK(access(none, F_OK) != 0);
    hlsnap_snapshot_release(s);
}

/* A blob that goes while it is copied is looked for once more; one of the target that changes is looked at again. */
static void copy_meets_gc(void) {
    const char *from = fresh(), *to = fresh();
    hlsnap_snapshot *s = snapshot_new(1);
    char digest[72];
    CHECK_EQ(save(from, "v1", s, digest), 0);
    vanish = digest + 60;
    vanish_times = 1;
    CHECK_EQ(hlsnap_oci_copy(from, "v1", to, NULL, NULL, NULL, &err), 0);
    CHECK_EQ(loads(to, "v1"), 0);
    vanish = NULL;
    hlsnap_snapshot_release(s);
}

/* org.opencontainers.image.created, by RFC 3339 and nothing else. */
static void created_times(void) {
    static const struct { const char *text; int64_t seconds; } rows[] = {
        {"1970-01-01T00:00:01Z", 1}, {"2000-02-29T12:34:56Z", 951827696}, {"2026-11-29T08:00:00+01:00", 1795935600},
        {"2026-11-29t08:00:00.123456789z", 1795939200}, {"2038-01-19T03:14:08-00:00", 2147483648},
        {"9999-12-31T23:59:59Z", 253402300799},
        {"2016-12-31T23:59:60Z", 1483228800}, {"2100-02-28T23:59:59Z", 4107542399}, {"1970-01-01T00:00:00-23:59", 86340},
        {"1970-01-01T00:00:00Z", 0}, {"1969-12-31T23:59:59Z", 0}, {"1970-01-01T00:30:00+01:00", 0}, {"0000-01-01T00:00:00Z", 0},
        {"", 0}, {"2026", 0}, {"2100-02-29T00:00:00Z", 0}, {"2026-11-31T00:00:00Z", 0}, {"2026-00-01T00:00:00Z", 0},
        {"2026-13-01T00:00:00Z", 0}, {"2026-01-00T00:00:00Z", 0}, {"2026-11-29T24:00:00Z", 0}, {"2026-11-29T00:60:00Z", 0},
        {"2026-11-29T00:00:61Z", 0}, {"2026-11-29T00:00:00", 0}, {"2026-11-29T00:00:00.Z", 0}, {"2026-11-29T00:00:00.1.1Z", 0},
        {"2026-11-29T00:00:00+24:00", 0}, {"2026-11-29T00:00:00+01:60", 0}, {"2026-11-29T00:00:00+0100", 0},
        {"2026-11-29T00:00:00Zx", 0}, {" 2026-11-29T00:00:00Z", 0}, {"2026-11-29 00:00:00Z", 0}, {"26-11-29T00:00:00Z", 0},
        {"2026-1-29T00:00:00Z", 0},
        {"+026-11-29T00:00:00Z", 0}, {"2026-11-29T00:00:00+01:00 ", 0}, {"2026-11-29T00:00:00-", 0}};
    size_t i;
    for (i = 0; i < HLSNAP_COUNT(rows); i++)
        if (!CHECK_EQ(hlsnap__oci_time_read(rows[i].text), rows[i].seconds)) printf("# '%s'\n", rows[i].text);
}

static const test_row tests[] = {
    TEST(sha256_vectors), TEST(sha256_streams), TEST(json_strict), TEST(round_trip), TEST(reproducible), TEST(manifest_form),
    TEST(modes_and_umask), TEST(zero_guest), TEST(bare_contract), TEST(cpu_levels), TEST(large_layer), TEST(arguments),
    TEST(progress_and_cancel), TEST(hostile_layouts), TEST(config_members), TEST(resized_while_read), TEST(unreadable), TEST(refuses_and_leaves_alone), TEST(into_directories),
    TEST(foreign_entries_stay), TEST(tags_move), TEST(moved_tags_keep_annotations), TEST(heals_wrong_entry),
    TEST(created_times), TEST(copy_whole), TEST(copy_is_checked), TEST(copy_meets_gc),
    TEST(heals_blobs), TEST(loaded_snapshot_outlives_its_layout), TEST(read_only), TEST(other_mount), TEST(leased), TEST(opens_only_files), TEST(many_values), TEST(size_is_bounded), TEST(holes_are_bounded), TEST(other_cpus), TEST(borrowed_digest), TEST(gc_keeps_what_is_tagged), TEST(source_changes_while_saved), TEST(full_disk), TEST(fallbacks),
    TEST(vanished_blob_is_retried), TEST(order_of_syncs), TEST(failing_allocations), TEST(failing_cjson),
    TEST(skopeo_copies), TEST(full_contract), TEST(sha256_lanes_agree), TEST(utf8_exhaustive), TEST(many_extents), TEST(gaps_of_many_sizes), TEST(concurrent_saves),
    TEST(concurrent_saves_named), TEST(concurrent_cancels), TEST(cleaning_savers_do_not_harm), TEST(readers_while_saving),
    TEST(killed_savers), TEST(failing_syscalls), TEST(random_damage), TEST(umoci_lists), TEST(file_size_limit)};

int main(int argc, char **argv) {
    const char *tmp = getenv("TMPDIR");
    int r;
    snprintf(home, sizeof(home), "%s/hlsnap-oci-XXXXXX", tmp ? tmp : "/tmp");
    if (!mkdtemp(home) || chdir(home) != 0) return 1;
    r = test_main(tests, HLSNAP_COUNT(tests) - (getenv("QUICK") ? HEAVY : 0), argc, argv);
    if (chdir("/") == 0) sh("rm -rf %s", home);
    free(marker_text), free(index_text), free(manifest_text), free(config_text);
    return r;
}

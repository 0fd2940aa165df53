/* test_linux_files.h - files, directories and descriptors of the Linux personality; a part of test_linux.c, rows: LX_FILE_TESTS. */
#ifndef TEST_LINUX_FILES_H
#define TEST_LINUX_FILES_H
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define LX_PATH 010000000 /* O_PATH */

/* ---- a writer of archives ---- */

static struct { uint8_t *p; size_t size, room; } tar;

static uint8_t *tar_more(size_t n) {
    if (tar.size + n > tar.room) tar.p = (uint8_t *)realloc(tar.p, tar.room = (tar.size + n) * 2);
    memset(tar.p + tar.size, 0, n);
    tar.size += n;
    return tar.p + tar.size - n;
}
static void tar_sum(uint8_t *h) {
    unsigned sum = 0, i;
    memset(h + 148, ' ', 8);
    for (i = 0; i < 512; i++) sum += h[i];
    snprintf((char *)h + 148, 8, "%06o", sum);
}
/* A member; the offset of its header. size: what the header says, data: what follows (NULL = nothing). */
static size_t tar_raw(const char *name, char type, const char *link, const void *data, size_t n, unsigned long long size) {
    uint8_t *h = tar_more(512);
    const size_t at = tar.size - 512;
    memcpy(h, name, strlen(name) < 100 ? strlen(name) : 100);
    snprintf((char *)h + 100, 8, "%07o", type == '5' ? 0750 : 0640);
    snprintf((char *)h + 124, 12, "%011llo", size & 077777777777);
    snprintf((char *)h + 136, 12, "%011o", 1000000000);
    h[156] = (uint8_t)type;
    if (link) memcpy(h + 157, link, strlen(link) < 100 ? strlen(link) : 100);
    memcpy(h + 257, "ustar\0" "00", 8);
    tar_sum(h);
    if (n) memcpy(tar_more((n + 511) / 512 * 512), data, n);
    return at;
}
static size_t tar_file(const char *name, const char *text) { return tar_raw(name, '0', NULL, text, strlen(text), strlen(text)); }
static void tar_dir(const char *name) { tar_raw(name, '5', NULL, NULL, 0, 0); }
static void tar_link(const char *name, const char *to) { tar_raw(name, '2', to, NULL, 0, 0); }
static void tar_hard(const char *name, const char *to) { tar_raw(name, '1', to, NULL, 0, 0); }
static void tar_long(char type, const char *text) { tar_raw("././@LongLink", type, NULL, text, strlen(text) + 1, strlen(text) + 1); }
static void tar_pax(char type, const char *key, const char *value) {
    char record[5000];
    const size_t n = strlen(key) + strlen(value) + 3;
    const size_t all = n + (n + 1 > 9 ? n + 2 > 99 ? n + 3 > 999 ? 4 : 3 : 2 : 1);
    snprintf(record, sizeof(record), "%zu %s=%s\n", all, key, value);
    CHECK_EQ(strlen(record), all);
    tar_raw("pax", type, NULL, record, all, all);
}
static void tar_end(void) { tar_more(1024); }
static void tar_begin(void) { tar.size = 0; }
static void lx_begin_tar(size_t heap) {
    lx_begin(heap, tar.p, tar.size);
    tar.size = 0;
}

/* ---- what the tests ask ---- */

static int64_t lx_creat(const char *path, const char *text) { /* 0, or what failed */
    const int64_t fd = sys(SYS_open, S(path), O_CREAT | O_WRONLY | O_TRUNC, 0644);
    int64_t r;
    if (fd < 0) return fd;
    r = sys(SYS_write, fd, S(text), strlen(text));
    sys(SYS_close, fd);
    return r == (int64_t)strlen(text) ? 0 : r;
}
static const char *lx_text(const char *path) { /* "" = empty, "E2" = cannot be opened: ENOENT */
    static char text[4][300];
    static int turn;
    char *t = text[turn++ & 3];
    const int64_t fd = sys(SYS_open, S(path), O_RDONLY);
    const int64_t n = fd < 0 ? fd : sys(SYS_read, fd, S(t), 299);
    if (fd >= 0) sys(SYS_close, fd);
    if (n < 0) snprintf(t, 300, "E%d", (int)-n);
    else t[n] = 0;
    return t;
}
static struct stat lx_st(const char *path) {
    struct stat st;
    memset(&st, 0, sizeof(st));
    if (sys(SYS_lstat, S(path), S(&st)) < 0) memset(&st, 0, sizeof(st));
    return st;
}
static const char *lx_where(const char *path) {
    static char to[5000];
    const int64_t n = sys(SYS_readlink, S(path), S(to), sizeof(to) - 1);
    if (n < 0) snprintf(to, sizeof(to), "E%d", (int)-n);
    else to[n] = 0;
    return to;
}

struct lx_dirent { uint64_t ino; int64_t off; uint16_t size; uint8_t type; char name[]; };
static int lx_by_name(const void *a, const void *b) { return strcmp((const char *)a, (const char *)b); }

/* The names in a directory, sorted, without "." and "..", each with what it is behind it; of the guest or of the host. */
static int64_t lx_do(bool host, long number, uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t e) {
    long r;
    if (!host) return sys((uint64_t)number, a, b, c, d, e);
    r = syscall(number, a, b, c, d, e);
    return r < 0 ? -errno : r;
}
static void lx_list(bool host, const char *path, size_t buffer, char *out, size_t room) {
    static char names[20000][280];
    static _Alignas(8) char buf[70000];
    const int64_t fd = lx_do(host, SYS_openat, (uint64_t)AT_FDCWD, S(path), O_RDONLY | O_DIRECTORY, 0, 0);
    int64_t n, at;
    size_t num = 0, used = 0, i;
    int dots = 0;
    out[0] = 0;
    if (fd < 0) {
        snprintf(out, room, "E%d", (int)-fd);
        return;
    }
    while ((n = lx_do(host, SYS_getdents64, (uint64_t)fd, S(buf), buffer, 0, 0)) > 0)
        for (at = 0; at < n;) {
            const struct lx_dirent *e = (const struct lx_dirent *)(const void *)(buf + at);
            at += e->size;
            dots += strcmp(e->name, ".") == 0 || strcmp(e->name, "..") == 0;
            if (strcmp(e->name, ".") && strcmp(e->name, "..") && num < 20000) snprintf(names[num++], 280, "%.255s %d", e->name, e->type);
        }
    if (n < 0) snprintf(names[num++], 280, "E%d", (int)-n);
    lx_do(host, SYS_close, (uint64_t)fd, 0, 0, 0, 0);
    CHECK_EQ(dots, 2);
    qsort(names, num, 280, lx_by_name);
    for (i = 0; i < num && used + 300 < room; i++) used += (size_t)snprintf(out + used, room - used, "%s;", names[i]);
}
static const char *lx_ls(const char *path) {
    static char out[4000];
    lx_list(false, path, 4096, out, sizeof(out));
    return out;
}

/* ---- the same calls here and on the kernel of the host: results, contents and listings are the same ---- */

static uint64_t lx_seed;
static uint32_t lx_rand(uint32_t n) {
    lx_seed = lx_seed * 6364136223846793005ull + 1442695040888963407ull;
    return (uint32_t)(lx_seed >> 33) % n;
}
static char lx_history[64][400];
static unsigned lx_ops;

/* In the host's tree, what the archive has in the guest's; its names are those that a random path has. */
static void lx_same_tree(void) {
    static const char *const dirs[] = {"w", "w/ro", "w/ro/sub", "w/ro/sub/deep"};
    static const char *const files[][2] = {{"w/ro/f", "file of the archive"}, {"w/ro/sub/f", ""}, {"w/ro/sub/deep/g", "x"}};
    static const char *const links[][2] = {{"w/ro/l1", "f"}, {"w/ro/l2", "../a"}, {"w/ro/loop", "loop"}, {"w/ro/ld", "sub"},
                                           {"w/ro/abs", "/w/b"}, {"w/ro/dang", "nothing"}, {"w/ro/slash", "sub/"}, {"w/ro/up", ".."},
                                           {"w/ro/fslash", "f/"}, {"w/ro/chain", "ld/deep/../f"}, {"w/ro/root", "/"}};
    size_t i;
    int fd;
    tar_begin();
    for (i = 0; i < HLSNAP_COUNT(dirs); i++) {
        tar_dir(dirs[i]);
        CHECK_EQ(mkdir(dirs[i], 0750), 0);
    }
    for (i = 0; i < HLSNAP_COUNT(files); i++) {
        tar_file(files[i][0], files[i][1]);
        fd = open(files[i][0], O_CREAT | O_WRONLY | O_EXCL, 0640);
        CHECK(fd >= 0 && write(fd, files[i][1], strlen(files[i][1])) == (ssize_t)strlen(files[i][1]));
        CHECK_EQ(close(fd), 0);
    }
    for (i = 0; i < HLSNAP_COUNT(links); i++) {
        tar_link(links[i][0], links[i][1]);
        CHECK_EQ(symlink(links[i][1], links[i][0]), 0);
    }
    tar_hard("w/ro/hard", "w/ro/f");
    CHECK_EQ(link("w/ro/f", "w/ro/hard"), 0);
    tar_end();
}

static const char *lx_path(void) {
    static char paths[2][2000];
    static int turn;
    static const char *const names[] = {"a", "b", "c", "d", "a", "b", "ro", "ro", "sub", "f", "l1", "l2", "loop", "ld", "abs", "dang",
                                        "slash", "up", "fslash", "chain", "root", "hard", "deep", "g", "nothing", ".", "..", "..", "w"};
    char *p = paths[turn++ & 1];
    uint32_t num = 1 + lx_rand(lx_rand(3) ? 2 : 4), i;
    p[0] = 0;
    if (!lx_rand(100)) return p;
    if (!lx_rand(4)) strcpy(p, "/w/");
    else if (!lx_rand(20)) strcpy(p, "/");
    for (i = 0; i < num; i++) {
        if (!lx_rand(300)) {
            const size_t n = strlen(p);
            memset(p + n, 'n', 255 + lx_rand(2));
            p[n + 256] = 0;
            if (p[n + 255] != 'n') p[n + 255] = 0;
        } else
            strcat(p, names[lx_rand(HLSNAP_COUNT(names))]);
        if (i + 1 < num) strcat(p, lx_rand(20) ? "/" : "//");
    }
    if (!lx_rand(12)) strcat(p, lx_rand(3) ? "/" : "//");
    return p;
}
static uint64_t lx_any_fd(void) { return lx_rand(30) ? 3 + lx_rand(6) : (uint64_t)(lx_rand(2) ? -1 : 1500); }
static uint64_t lx_any_dir(void) { return lx_rand(4) ? (uint64_t)AT_FDCWD : lx_any_fd(); }

static uint8_t lx_bytes[2][9000];

/* One call on both; the host is left alone where the guest says that it is the archive, or its own root. */
static int64_t lx_both(long number, uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t e) {
    const int64_t r = lx_do(false, number, a, b, c, d, e);
    int64_t h;
    char *line = lx_history[lx_ops++ % 64];
    const char *name = hlsnap__syscall_name((uint64_t)number);
    const bool path1 = number == SYS_chdir || number == SYS_truncate, path2 = strstr(name, "at") && number != SYS_truncate &&
                       number != SYS_fstat && number != SYS_ftruncate && number != SYS_fallocate;
    snprintf(line, sizeof(lx_history[0]), "%s(%lld '%.80s', %lld '%.120s', 0x%llx '%.10s', 0x%llx '%.100s', 0x%llx) = %lld", name,
             (long long)a, path1 ? (const char *)(uintptr_t)a : "", (long long)b, path2 ? (const char *)(uintptr_t)b : "",
             (unsigned long long)c, "", (unsigned long long)d, number == SYS_renameat2 ? (const char *)(uintptr_t)d : "",
             (unsigned long long)e, (long long)r);
    if (r == -EROFS || r == -EPERM) return r;
    h = lx_do(true, number, a, b, c, d, e);
    if (!CHECK_EQ(r, h)) printf("# %s, host %lld\n", line, (long long)h);
    return r;
}

static void lx_same_stat(const struct stat *g, const struct stat *h) {
    CHECK_EQ(g->st_mode, h->st_mode);
    if (!S_ISDIR(g->st_mode)) CHECK_EQ(g->st_size, h->st_size);
    CHECK_EQ(g->st_nlink, h->st_nlink);
}

/* A call that gives a struct stat. */
static void lx_both_stat(long number, uint64_t a, uint64_t b, uint64_t d, bool times) {
    struct stat st[2];
    int64_t r, h;
    memset(st, 0, sizeof(st));
    r = number == SYS_fstat ? lx_do(false, number, a, S(&st[0]), 0, 0, 0) : lx_do(false, number, a, b, S(&st[0]), d, 0);
    h = number == SYS_fstat ? lx_do(true, number, a, S(&st[1]), 0, 0, 0) : lx_do(true, number, a, b, S(&st[1]), d, 0);
    if (!CHECK_EQ(r, h)) printf("# stat %lld '%s' 0x%llx\n", (long long)a, b ? (const char *)(uintptr_t)b : "", (unsigned long long)d);
    if (r || h) return;
    lx_same_stat(&st[0], &st[1]);
    if (!times) return;
    CHECK_EQ(st[0].st_mtim.tv_sec, st[1].st_mtim.tv_sec);
    CHECK_EQ(st[0].st_mtim.tv_nsec, st[1].st_mtim.tv_nsec);
}

static void lx_same_list(const char *path) {
    static char out[2][20000];
    lx_list(false, path, 300 + lx_rand(500), out[0], sizeof(out[0]));
    lx_list(true, path, 300 + lx_rand(500), out[1], sizeof(out[1]));
    if (!CHECK_STR(out[0], out[1])) printf("# list '%s'\n", path);
}

static void lx_random_open(void) {
    static const int bits[] = {O_CREAT, O_CREAT, O_EXCL, O_TRUNC, O_APPEND, O_NOFOLLOW, O_DIRECTORY, O_CLOEXEC, O_NONBLOCK, LX_PATH};
    int flags = (int)lx_rand(3), i;
    for (i = (int)lx_rand(4); i > 0; i--) flags |= bits[lx_rand(HLSNAP_COUNT(bits))];
    if (flags & O_CREAT && !lx_rand(3)) flags |= O_EXCL;
    if (flags & O_CREAT) flags &= ~O_DIRECTORY;
    if (!(flags & O_CREAT) && !lx_rand(3)) flags |= O_DIRECTORY;
    lx_both(SYS_openat, lx_any_dir(), S(lx_path()), (uint64_t)flags, lx_rand(01000), 0);
}

static void lx_random_data(void) {
    const uint64_t fd = lx_any_fd(), n = lx_rand(8) ? lx_rand(200) : lx_rand(9000);
    const uint64_t at = lx_rand(10) ? lx_rand(3000) : lx_rand(200000);
    struct iovec iov[2][3];
    int64_t r, h;
    uint32_t i;
    for (i = 0; i < n; i++) lx_bytes[0][i] = (uint8_t)lx_rand(256);
    switch (lx_rand(9)) {
    case 0: lx_both(SYS_write, fd, S(lx_bytes[0]), n, 0, 0); return;
    case 1: lx_both(SYS_pwrite64, fd, S(lx_bytes[0]), n, lx_rand(40) ? at : (uint64_t)-5, 0); return;
    case 2: lx_both(SYS_lseek, fd, lx_rand(8) ? at : (uint64_t)0 - lx_rand(3000), lx_rand(40) ? lx_rand(3) : 7, 0, 0); return;
    case 3: lx_both(SYS_ftruncate, fd, lx_rand(30) ? at : (uint64_t)-1, 0, 0, 0); return;
    case 4:
        for (i = 0; i < 3; i++) {
            iov[0][i].iov_base = lx_bytes[0] + 1000 * i;
            iov[0][i].iov_len = lx_rand(4) ? lx_rand(300) : 0;
        }
        if (lx_rand(2)) lx_both(SYS_writev, fd, S(iov[0]), lx_rand(4), 0, 0);
        else lx_both(SYS_pwritev, fd, S(iov[0]), lx_rand(4), at, 0);
        return;
    case 5: lx_both(SYS_fallocate, fd, lx_rand(2) ? 0 : lx_rand(4), at, lx_rand(20) ? 1 + lx_rand(3000) : 0, 0); return;
    default: break;
    }
    memset(lx_bytes, 1, sizeof(lx_bytes));
    for (i = 0; i < 6; i++) {
        iov[i / 3][i % 3].iov_base = lx_bytes[i / 3] + 1000 * (i % 3);
        iov[i / 3][i % 3].iov_len = 100 + i % 3;
    }
    i = lx_rand(3);
    r = i == 0 ? lx_do(false, SYS_read, fd, S(lx_bytes[0]), n, 0, 0)
        : i == 1 ? lx_do(false, SYS_pread64, fd, S(lx_bytes[0]), n, at, 0) : lx_do(false, SYS_readv, fd, S(iov[0]), 3, 0, 0);
    h = i == 0 ? lx_do(true, SYS_read, fd, S(lx_bytes[1]), n, 0, 0)
        : i == 1 ? lx_do(true, SYS_pread64, fd, S(lx_bytes[1]), n, at, 0) : lx_do(true, SYS_readv, fd, S(iov[1]), 3, 0, 0);
    CHECK_EQ(r, h);
    CHECK(memcmp(lx_bytes[0], lx_bytes[1], sizeof(lx_bytes[0])) == 0);
}

static void lx_random_fd(void) {
    const uint64_t fd = lx_any_fd();
    switch (lx_rand(11)) {
    case 0: lx_both(SYS_dup, fd, 0, 0, 0, 0); break;
    case 1: lx_both(SYS_dup2, fd, lx_any_fd(), 0, 0, 0); break;
    case 2: lx_both(SYS_dup3, fd, lx_any_fd(), lx_rand(2) ? O_CLOEXEC : lx_rand(2) ? O_NONBLOCK : 0, 0, 0); break;
    case 3: lx_both(SYS_fcntl, fd, lx_rand(2) ? F_DUPFD : F_DUPFD_CLOEXEC, 3 + lx_rand(12), 0, 0); break;
    case 4: lx_both(SYS_fcntl, fd, F_GETFD, 0, 0, 0); break;
    case 5: lx_both(SYS_fcntl, fd, F_SETFD, lx_rand(2), 0, 0); break;
    case 6: lx_both(SYS_fcntl, fd, F_GETFL, 0, 0, 0); break;
    case 7: lx_both(SYS_fcntl, fd, F_SETFL, lx_rand(2) ? O_APPEND : lx_rand(2) ? O_NONBLOCK | O_RDWR : 0, 0, 0); break;
    case 8:
        if (!lx_rand(10)) lx_both(SYS_close_range, 6 + lx_rand(4), 3 + lx_rand(10), lx_rand(3) ? 0 : 4, 0, 0);
        break;
    default: lx_both(SYS_close, fd, 0, 0, 0, 0); break;
    }
}

static void lx_random_name(void) {
    static const uint64_t at_flags[] = {0, 0, AT_SYMLINK_NOFOLLOW, AT_SYMLINK_NOFOLLOW, 0x1000, 0x1100, 0x8000};
    const uint64_t dir = lx_any_dir();
    const char *path = lx_path();
    char buf[2][200];
    int64_t r, h;
    switch (lx_rand(16)) {
    case 0:
    case 1: lx_both(SYS_mkdirat, dir, S(path), lx_rand(02000), 0, 0); break;
    case 2:
    case 3: lx_both(SYS_unlinkat, dir, S(path), lx_rand(2) ? AT_REMOVEDIR : lx_rand(40) ? 0 : 1, 0, 0); break;
    case 4:
    case 5:
    case 6: lx_both(SYS_renameat2, dir, S(path), lx_any_dir(), S(lx_path()), lx_rand(4) ? 0 : 1); break;
    case 7: lx_both(SYS_truncate, S(path), lx_rand(30) ? lx_rand(5000) : (uint64_t)-1, 0, 0, 0); break;
    case 8: lx_both(SYS_faccessat, dir, S(path), lx_rand(50) ? lx_rand(8) : 9, 0, 0); break;
    case 9: lx_both(SYS_fchmodat, dir, S(path), lx_rand(02000), 0, 0); break;
    case 10: lx_both(SYS_fchmod, lx_any_fd(), lx_rand(02000), 0, 0, 0); break;
    case 11: lx_both(SYS_chdir, S(path), 0, 0, 0, 0); break;
    case 12:
        if (!lx_rand(3)) lx_both(SYS_fchdir, lx_any_fd(), 0, 0, 0, 0);
        if (!lx_rand(5)) lx_both(SYS_umask, lx_rand(4) ? 022 : lx_rand(01000), 0, 0, 0, 0);
        break;
    case 13:
        memset(buf, 1, sizeof(buf));
        r = lx_do(false, SYS_readlinkat, dir, S(path), S(buf[0]), 6, 0);
        h = lx_do(true, SYS_readlinkat, dir, S(path), S(buf[1]), 6, 0);
        if (!CHECK_EQ(r, h)) printf("# readlinkat %lld '%s'\n", (long long)dir, path);
        CHECK(memcmp(buf[0], buf[1], sizeof(buf[0])) == 0);
        break;
    case 14:
        memset(buf, 1, sizeof(buf));
        r = lx_do(false, SYS_getcwd, S(buf[0]), lx_rand(2) ? 200 : 5, 0, 0, 0);
        h = lx_do(true, SYS_getcwd, S(buf[1]), r == -ERANGE ? 5 : 200, 0, 0, 0);
        if (r == -ERANGE || h != -ERANGE) CHECK_EQ(r, h);
        if (r > 0) CHECK_STR(buf[0], buf[1]);
        break;
    default: lx_both_stat(SYS_newfstatat, dir, S(path), at_flags[lx_rand(HLSNAP_COUNT(at_flags))], false); break;
    }
}

static void lx_random_times(void) {
    const uint64_t dir = lx_any_dir();
    const char *path = lx_rand(4) ? lx_path() : NULL;
    struct timespec t[2];
    t[0].tv_sec = lx_rand(1000000);
    t[0].tv_nsec = lx_rand(4) ? (long)lx_rand(1000000000) : UTIME_OMIT;
    t[1].tv_sec = 1000000 + lx_rand(1000000);
    t[1].tv_nsec = lx_rand(10) ? (long)lx_rand(1000000000) : lx_rand(2) ? UTIME_OMIT : 1000000000;
    if (lx_both(SYS_utimensat, dir, S(path), S(t), 0, 0) || t[1].tv_nsec == UTIME_OMIT) return;
    if (path) lx_both_stat(SYS_newfstatat, dir, S(path), 0, true);
}

static void lx_same_everywhere(const char *path, int depth) {
    static const char *const names[] = {"a", "b", "c", "d", "w", "ro", "sub", "deep", "nothing"};
    size_t i;
    lx_same_list(path);
    for (i = 0; i < HLSNAP_COUNT(names) && depth < 4; i++) {
        char sub[3000];
        struct stat st = {0};
        snprintf(sub, sizeof(sub), "%s%s%s", path, path[1] ? "/" : "", names[i]);
        lx_both_stat(SYS_newfstatat, (uint64_t)AT_FDCWD, S(sub), AT_SYMLINK_NOFOLLOW, false);
        if (sys(SYS_lstat, S(sub), S(&st)) == 0 && S_ISDIR(st.st_mode)) lx_same_everywhere(sub, depth + 1);
    }
}

static void lx_random_ops(unsigned num) {
    const int before = test_bad;
    unsigned i;
    for (i = 0; i < num && test_bad == before; i++) {
        switch (lx_rand(12)) {
        case 0:
        case 1:
        case 2: lx_random_open(); break;
        case 3:
        case 4:
        case 5: lx_random_data(); break;
        case 6:
        case 7: lx_random_fd(); break;
        case 8: lx_both_stat(SYS_fstat, lx_any_fd(), 0, 0, false); break;
        case 9:
            if (!lx_rand(4)) lx_random_times();
            break;
        default: lx_random_name(); break;
        }
        if (!lx_rand(30)) lx_both(SYS_close_range, 9, 2000, 0, 0, 0);
        if (!lx_rand(40)) lx_same_list(lx_path());
        if (!lx_rand(400)) lx_same_everywhere("/", 0);
    }
}

static int lx_against_kernel(const char *dir, uint64_t seed, unsigned num) {
    const struct rlimit limit = {1024, 1024};
    unsigned i;
    CHECK_EQ(setrlimit(RLIMIT_NOFILE, &limit), 0);
    if (chdir(dir) || chroot(".") || chdir("/")) return 77;
    syscall(SYS_close_range, 3, ~0u, 0);
    umask(022);
    CHECK(chmod("/", 0755) == 0 && mkdir("/dev", 0755) == 0 && mkdir("/proc", 0755) == 0 && mkdir("/tmp", 0755) == 0);
    lx_seed = seed;
    lx_ops = 0;
    lx_same_tree();
    lx_begin_tar(16 << 20);
    lx_both(SYS_chdir, S("/w"), 0, 0, 0, 0);
    lx_random_ops(num);
    lx_same_everywhere("/", 0);
    if (test_bad) {
        printf("# seed %llu; the last calls:\n", (unsigned long long)seed);
        for (i = lx_ops > 25 ? lx_ops - 25 : 0; i < lx_ops; i++) printf("#   %s\n", lx_history[i % 64]);
    }
    fflush(stdout);
    return test_bad ? 1 : 0;
}

static void files_as_on_the_kernel(void) {
    const char *const seed_text = getenv("LX_SEED"), *const num_text = getenv("LX_SEEDS");
    uint64_t seed = seed_text ? strtoull(seed_text, NULL, 0) : 1, end = seed + (num_text ? strtoull(num_text, NULL, 0) : 12);
    for (; seed < end && !test_bad; seed++) {
        char dir[] = "/dev/shm/lx_files_XXXXXX", command[100];
        int status = 0;
        pid_t pid;
        if (!mkdtemp(dir)) SKIP("no /dev/shm");
        fflush(stdout);
        pid = fork();
        if (pid == 0) {
            if (geteuid() != 0 && syscall(SYS_unshare, 0x10000000) != 0) _exit(77);
            _exit(lx_against_kernel(dir, seed, 6000));
        }
        CHECK_EQ(waitpid(pid, &status, 0), pid);
        snprintf(command, sizeof(command), "rm -rf %s", dir);
        CHECK_EQ(system(command), 0);
        if (WIFEXITED(status) && WEXITSTATUS(status) == 77) SKIP("no chroot");
        CHECK_EQ(status, 0);
    }
}

/* ---- descriptors ---- */

static void fds_are_given_and_shared(void) {
    int64_t a, b, i;
    char buf[16];
    lx_begin(4 << 20, NULL, 0);
    CHECK_EQ(sys(SYS_open, S("/tmp/x"), O_CREAT | O_RDWR, 0644), 3);
    CHECK_EQ(sys(SYS_dup, 3), 4);
    CHECK_EQ(sys(SYS_write, 3, S("hello"), 5), 5);
    CHECK_EQ(sys(SYS_lseek, 4, 0, SEEK_CUR), 5); /* one description */
    CHECK_EQ(sys(SYS_fcntl, 4, F_SETFL, O_APPEND), 0);
    CHECK_EQ(sys(SYS_fcntl, 3, F_GETFL) & O_APPEND, O_APPEND);
    CHECK_EQ(sys(SYS_fcntl, 3, F_SETFD, FD_CLOEXEC), 0);
    CHECK_EQ(sys(SYS_fcntl, 4, F_GETFD), 0); /* not of the description */
    CHECK_EQ(sys(SYS_fcntl, 3, F_DUPFD_CLOEXEC, 100), 100);
    CHECK_EQ(sys(SYS_fcntl, 100, F_GETFD), FD_CLOEXEC);
    CHECK_EQ(sys(SYS_fcntl, 3, F_DUPFD, 1024), -EINVAL);
    CHECK_EQ(sys(SYS_fcntl, 3, 1032), -EINVAL); /* F_GETPIPE_SZ */
    CHECK_EQ(sys(SYS_dup2, 3, 1023), 1023);
    CHECK_EQ(sys(SYS_dup2, 3, 1024), -EBADF);
    CHECK_EQ(sys(SYS_dup2, 3, 3), 3);
    CHECK_EQ(sys(SYS_dup2, 50, 50), -EBADF);
    CHECK_EQ(sys(SYS_dup3, 3, 3, 0), -EINVAL);
    CHECK_EQ(sys(SYS_close, 3), 0);
    CHECK_EQ(sys(SYS_close, 3), -EBADF);
    CHECK_EQ(sys(SYS_pread64, 4, S(buf), 16, 1), 4);
    CHECK(memcmp(buf, "ello", 4) == 0);
    a = sys(SYS_open, S("/tmp/x"), O_RDONLY);
    b = sys(SYS_open, S("/tmp/x"), O_RDONLY);
    CHECK(a == 3 && b == 5);
    CHECK_EQ(sys(SYS_read, a, S(buf), 2), 2);
    CHECK_EQ(sys(SYS_lseek, b, 0, SEEK_CUR), 0); /* two */
    CHECK_EQ(sys(SYS_close_range, 3, 90, 0), 0);
    CHECK_EQ(sys(SYS_read, b, S(buf), 2), -EBADF);
    CHECK_EQ(sys(SYS_close_range, 90, 2000, 4), 0); /* CLOSE_RANGE_CLOEXEC */
    CHECK_EQ(sys(SYS_fcntl, 1023, F_GETFD), FD_CLOEXEC);
    for (i = 1024; i < 4096; i++) CHECK_EQ(sys(SYS_fcntl, i, F_GETFD), -EBADF);
    CHECK_EQ(sys(SYS_close_range, 5, 4, 0), -EINVAL);
    for (i = 3; i < 1023; i++)
        if (i != 100) CHECK_EQ(sys(SYS_open, S("/dev/null"), O_RDWR), i);
    CHECK_EQ(sys(SYS_open, S("/tmp/new"), O_CREAT | O_RDWR, 0600), -EMFILE);
    CHECK_EQ(sys(SYS_dup, 1), -EMFILE);
    CHECK_EQ(sys(SYS_fcntl, 1, F_DUPFD, 7), -EMFILE);
    CHECK_EQ(sys(SYS_close, 500), 0);
    CHECK_EQ(sys(SYS_open, S("/tmp/new"), O_RDWR), -ENOENT); /* nothing was made */
    CHECK_EQ(sys(SYS_dup, 1), 500);
}

static void standard_descriptors(void) {
    char buf[16];
    struct stat st;
    struct iovec v[3] = {{(void *)(uintptr_t) "ab", 2}, {NULL, 0}, {(void *)(uintptr_t) "cde", 3}};
    lx_begin(1 << 20, NULL, 0);
    CHECK_EQ(sys(SYS_write, 1, S("out"), 3), 3);
    CHECK_EQ(sys(SYS_write, 2, S("err"), 3), 3);
    CHECK_EQ(sys(SYS_writev, 1, S(v), 3), 5);
    CHECK_STR(lx_out[1], "outabcde");
    CHECK_STR(lx_out[2], "err");
    CHECK_EQ(sys(SYS_dup, 2), 3);
    CHECK_EQ(sys(SYS_write, 3, S("2"), 1), 1);
    CHECK_STR(lx_out[2], "err2");
    lx_input = "hello";
    CHECK_EQ(sys(SYS_read, 0, S(buf), 3), 3);
    CHECK_EQ(sys(SYS_open, S("/dev/stdin"), O_RDONLY), 4);
    CHECK_EQ(sys(SYS_read, 4, S(buf), 16), 2);
    CHECK_EQ(sys(SYS_read, 0, S(buf), 16), 0);
    lx_input = NULL;
    CHECK_EQ(sys(SYS_read, 0, S(buf), 0), 0);
    CHECK_EQ(lx_input_waits, 0);
    CHECK_EQ(sys(SYS_fcntl, 4, F_SETFL, O_NONBLOCK), 0);
    CHECK_EQ(sys(SYS_read, 4, S(buf), 16), -EAGAIN);
    CHECK_EQ(sys(SYS_read, 0, S(buf), 16), 3); /* it waits, and is fed */
    CHECK_EQ(lx_input_waits, 1);
    CHECK(memcmp(buf, "fed", 3) == 0);
    CHECK_EQ(sys(SYS_read, 1, S(buf), 1), -EBADF);
    CHECK_EQ(sys(SYS_write, 0, S(buf), 1), -EBADF);
    CHECK_EQ(sys(SYS_lseek, 0, 0, SEEK_CUR), -ESPIPE);
    CHECK_EQ(sys(SYS_pwrite64, 1, S("x"), 1, 0), -ESPIPE);
    CHECK_EQ(sys(SYS_ioctl, 1, 0x5401, S(buf)), -ENOTTY);
    CHECK_EQ(sys(SYS_ioctl, 99, 0x5401, S(buf)), -EBADF);
    CHECK_EQ(sys(SYS_fstat, 1, S(&st)), 0);
    CHECK(S_ISFIFO(st.st_mode));
    CHECK_EQ(sys(SYS_fsync, 1), 0);
    CHECK_EQ(sys(SYS_fsync, 77), -EBADF);
    CHECK_EQ(sys(SYS_fcntl, 0, F_GETFL) & O_ACCMODE, O_RDONLY);
    CHECK_EQ(sys(SYS_fcntl, 1, F_GETFL) & O_ACCMODE, O_WRONLY);
    CHECK_EQ(sys(SYS_open, S("/dev/stdout"), O_RDONLY), -EACCES);
    CHECK_EQ(sys(SYS_open, S("/dev/stdout"), O_WRONLY | O_CREAT | O_TRUNC, 0644), 5);
    CHECK_EQ(sys(SYS_write, 5, S("!"), 1), 1);
    CHECK_STR(lx_out[1], "outabcde!");
    CHECK_EQ(sys(SYS_close_range, 0, ~0u, 0), 0);
    CHECK_EQ(sys(SYS_open, S("/dev/null"), O_RDWR), 0);
}

static void vectors_and_counts(void) {
    static struct iovec v[1025];
    char a[4], b[4];
    int64_t fd;
    lx_begin(1 << 20, NULL, 0);
    fd = sys(SYS_open, S("/tmp/x"), O_CREAT | O_RDWR, 0644);
    CHECK_EQ(sys(SYS_write, fd, S("0123456789"), 10), 10);
    v[0].iov_base = a;
    v[1].iov_base = b;
    v[0].iov_len = v[1].iov_len = 4;
    CHECK_EQ(sys(SYS_preadv, fd, S(v), 2, 3), 7);
    CHECK(memcmp(a, "3456", 4) == 0 && memcmp(b, "789", 3) == 0);
    CHECK_EQ(sys(SYS_pwritev, fd, S(v), 1, 8), 4);
    CHECK_STR(lx_text("/tmp/x"), "012345673456");
    CHECK_EQ(sys(328, fd, S(v), 1, 0, 0, 0x10), 4); /* pwritev2 with RWF_APPEND */
    CHECK_STR(lx_text("/tmp/x"), "0123456734563456");
    CHECK_EQ(sys(327, fd, S(v), 1, 0, 0, 0x80), -EOPNOTSUPP);
    CHECK_EQ(sys(SYS_readv, fd, S(v), 1025), -EINVAL);
    CHECK_EQ(sys(SYS_readv, fd, S(v), -1), -EINVAL);
    CHECK_EQ(sys(SYS_readv, fd, S(v), 0), 0);
    v[1].iov_len = SIZE_MAX;
    CHECK_EQ(sys(SYS_readv, fd, S(v), 2), -EINVAL);
    v[0].iov_len = v[1].iov_len = SSIZE_MAX;
    CHECK_EQ(sys(SYS_writev, fd, S(v), 2), -EINVAL);
    CHECK_EQ(sys(SYS_preadv, fd, S(v), 1, -2), -EINVAL);
    CHECK_EQ(sys(SYS_read, fd, S(a), -1), -EINVAL);
    CHECK_EQ(sys(SYS_pread64, fd, S(a), 1, -1), -EINVAL);
    CHECK_EQ(sys(SYS_pread64, fd, S(a), 4, INT64_MAX - 2), -EINVAL);
    CHECK_EQ(sys(SYS_pwrite64, fd, S(a), 4, INT64_MAX - 4), -ENOSPC);
    CHECK_EQ(sys(SYS_lseek, fd, -1, SEEK_SET), -EINVAL);
    CHECK_EQ(sys(SYS_lseek, fd, 1, 9), -EINVAL);
    CHECK_EQ(sys(SYS_lseek, fd, INT64_MAX, SEEK_SET), INT64_MAX);
    CHECK_EQ(sys(SYS_lseek, fd, 1, SEEK_CUR), -EINVAL);
    CHECK_EQ(sys(SYS_read, fd, S(a), 4), 0);
    CHECK_EQ(sys(SYS_write, fd, S(a), 4), -EFBIG);
    CHECK_EQ(sys(SYS_lseek, fd, 3, 3), 3);         /* SEEK_DATA */
    CHECK_EQ(sys(SYS_lseek, fd, 3, 4), 16);        /* SEEK_HOLE */
    CHECK_EQ(sys(SYS_lseek, fd, 16, 3), -ENXIO);
    CHECK_EQ(sys(SYS_ioctl, fd, FIONREAD, S(a)), 0);
    CHECK_EQ(sys(SYS_ioctl, fd, FIOCLEX), 0);
    CHECK_EQ(sys(SYS_fcntl, fd, F_GETFD), 1);
    CHECK_EQ(sys(SYS_ioctl, fd, FIONCLEX), 0);
    CHECK_EQ(sys(SYS_fcntl, fd, F_GETFD), 0);
}

static void locks_succeed(void) {
    struct flock l = {0};
    int64_t fd, rd;
    lx_begin(1 << 20, NULL, 0);
    fd = sys(SYS_open, S("/tmp/x"), O_CREAT | O_WRONLY, 0644);
    rd = sys(SYS_open, S("/tmp/x"), O_RDONLY);
    l.l_type = F_WRLCK;
    CHECK_EQ(sys(SYS_fcntl, fd, F_SETLK, S(&l)), 0);
    CHECK_EQ(sys(SYS_fcntl, fd, F_SETLKW, S(&l)), 0);
    CHECK_EQ(sys(SYS_fcntl, fd, 37, S(&l)), 0); /* F_OFD_SETLK */
    CHECK_EQ(sys(SYS_fcntl, rd, F_SETLK, S(&l)), -EBADF);
    CHECK_EQ(sys(SYS_fcntl, rd, F_GETLK, S(&l)), 0);
    CHECK_EQ(l.l_type, F_UNLCK);
    l.l_type = F_RDLCK;
    CHECK_EQ(sys(SYS_fcntl, fd, F_SETLK, S(&l)), -EBADF);
    l.l_whence = 5;
    CHECK_EQ(sys(SYS_fcntl, rd, F_SETLK, S(&l)), -EINVAL);
    CHECK_EQ(sys(SYS_flock, fd, 2), 0);
}

static void devices(void) {
    uint8_t buf[64], zero[64] = {0};
    struct stat st;
    int64_t fd;
    lx_begin(1 << 20, NULL, 0);
    fd = sys(SYS_open, S("/dev/null"), O_RDWR);
    CHECK_EQ(sys(SYS_read, fd, S(buf), 64), 0);
    CHECK_EQ(sys(SYS_write, fd, S(buf), 64), 64);
    CHECK_EQ(sys(SYS_fstat, fd, S(&st)), 0);
    CHECK(S_ISCHR(st.st_mode));
    CHECK_EQ(st.st_rdev, 0x103);
    CHECK_STR((snprintf((char *)buf, 64, "/proc/self/fd/%d", (int)fd), lx_where((char *)buf)), "/dev/null");
    fd = sys(SYS_open, S("/dev/zero"), O_RDWR);
    memset(buf, 1, 64);
    CHECK_EQ(sys(SYS_read, fd, S(buf), 64), 64);
    CHECK(memcmp(buf, zero, 64) == 0);
    CHECK_EQ(sys(SYS_lseek, fd, 7, SEEK_SET), 0);
    fd = sys(SYS_open, S("/dev/full"), O_RDWR | O_TRUNC);
    CHECK_EQ(sys(SYS_read, fd, S(buf), 64), 64);
    CHECK_EQ(sys(SYS_write, fd, S(buf), 64), -ENOSPC);
    fd = sys(SYS_open, S("/dev/urandom"), O_RDONLY);
    CHECK_EQ(sys(SYS_read, fd, S(buf), 64), 64);
    CHECK(memcmp(buf, zero, 64) != 0);
    CHECK_EQ(sys(SYS_open, S("/dev/tty"), O_RDWR), -ENXIO);
    CHECK_EQ(sys(SYS_open, S("/dev/null/x"), O_RDWR), -ENOTDIR);
    CHECK_EQ(sys(SYS_open, S("/dev/null"), O_RDWR | O_CREAT | O_EXCL), -EEXIST);
    CHECK_EQ(sys(SYS_unlink, S("/dev/null")), -EACCES);
    CHECK_EQ(sys(SYS_rename, S("/dev/null"), S("/tmp/n")), -EACCES);
    CHECK_EQ(sys(SYS_rmdir, S("/tmp")), -EACCES);
    CHECK_EQ(sys(SYS_rmdir, S("/")), -EBUSY);
    CHECK_EQ(sys(SYS_chmod, S("/dev/null"), 0), -EPERM);
    CHECK_EQ(sys(SYS_ftruncate, fd, 0), -EINVAL);
    CHECK_EQ(sys(SYS_truncate, S("/dev/null"), 0), -EINVAL);
    CHECK_STR(lx_ls("/dev"), "fd 10;full 2;null 2;random 2;shm 4;stderr 10;stdin 10;stdout 10;tty 2;urandom 2;zero 2;");
    CHECK_STR(lx_ls("/"), "dev 4;proc 4;tmp 4;");
    CHECK_EQ(lx_creat("/dev/shm/s", "shared"), 0);
    CHECK_STR(lx_text("/dev/shm/s"), "shared");
}

static void proc_self(void) {
    char buf[64];
    struct stat st;
    int64_t fd, dir;
    lx_begin(1 << 20, NULL, 0);
    CHECK_STR(lx_where("/proc/self/exe"), "/program");
    CHECK_EQ(sys(SYS_readlink, S("/proc/self/exe"), S(buf), 4), 4);
    CHECK(memcmp(buf, "/pro", 4) == 0);
    CHECK_EQ(sys(SYS_open, S("/proc/self/exe"), O_RDONLY), -EACCES);
    CHECK_EQ(sys(SYS_stat, S("/proc/self/exe"), S(&st)), 0);
    CHECK(S_ISREG(st.st_mode));
    hlsnap__lx_say_stack(0xabc0ff8, 0x4000);
    CHECK_STR(lx_text("/proc/self/maps"), "abbd000-abc1000 rw-p 00000000 00:00 0 [stack]\n");
    CHECK_EQ(sys(SYS_open, S("/proc/self/maps"), O_RDWR), -EACCES);
    CHECK_EQ(sys(SYS_open, S("/proc/self/status"), O_RDONLY), -ENOENT);
    CHECK_EQ(sys(SYS_open, S("/proc/cpuinfo"), O_RDONLY), -ENOENT);
    CHECK_EQ(sys(SYS_open, S("/sys/kernel"), O_RDONLY), -ENOENT);
    CHECK_EQ(sys(SYS_open, S("/proc/x"), O_RDWR | O_CREAT, 0600), -ENOENT);
    CHECK_EQ(sys(SYS_mkdir, S("/proc/self/fd/x"), 0700), -ENOENT);
    CHECK_STR(lx_where("/proc/self/fd/1"), "pipe:[1]");
    fd = sys(SYS_open, S("/tmp/f"), O_CREAT | O_RDWR, 0644);
    CHECK_EQ(sys(SYS_write, fd, S("abc"), 3), 3);
    CHECK_STR(lx_where("/dev/fd/3"), "/tmp/f");
    CHECK_STR(lx_text("/dev/fd/3"), "abc"); /* opened anew: from its start */
    CHECK_EQ(sys(SYS_lstat, S("/proc/self/fd/3"), S(&st)), 0);
    CHECK(S_ISLNK(st.st_mode));
    CHECK_EQ(sys(SYS_stat, S("/proc/self/fd/3"), S(&st)), 0);
    CHECK(S_ISREG(st.st_mode) && st.st_size == 3);
    CHECK_EQ(sys(SYS_unlink, S("/tmp/f")), 0);
    CHECK_STR(lx_text("/dev/fd/3"), "abc"); /* a name that leads to it still */
    CHECK_EQ(sys(SYS_stat, S("/proc/self/fd/3"), S(&st)), 0);
    CHECK_EQ(st.st_nlink, 0);
    CHECK_EQ(sys(SYS_stat, S("/proc/self/fd/4"), S(&st)), -ENOENT);
    CHECK_EQ(sys(SYS_stat, S("/proc/self/fd/03"), S(&st)), -ENOENT);
    CHECK_EQ(sys(SYS_stat, S("/proc/self/fd/99999999999"), S(&st)), -ENOENT);
    CHECK_EQ(sys(SYS_unlink, S("/proc/self/fd/3")), -EACCES);
    CHECK_EQ(sys(SYS_rename, S("/proc/self/fd/3"), S("/tmp/x")), -EACCES);
    CHECK_STR(lx_ls("/proc/self/fd"), "0 10;1 10;2 10;3 10;4 10;");
    dir = sys(SYS_open, S("/tmp"), O_RDONLY | O_DIRECTORY);
    CHECK_EQ(lx_creat("/tmp/g", "g"), 0);
    snprintf(buf, sizeof(buf), "/proc/self/fd/%d/g", (int)dir);
    CHECK_STR(lx_text(buf), "g");
    CHECK_EQ(sys(SYS_chdir, S("/proc/self/fd/1")), -ENOTDIR);
    CHECK_EQ(sys(SYS_fchmod, 1, 0), -EPERM);
    CHECK_EQ(sys(SYS_stat, 0, S(&st)), -EFAULT);
    CHECK_EQ(sys(SYS_statx, 0, 0, 0, 0x7ff, 0), -EFAULT); /* a libc asks like this whether there is a statx */
}

/* ---- what does not change ---- */

static void archive_is_read_only(void) {
    struct stat st;
    struct timespec t[2] = {{1, 2}, {3, 4}};
    int64_t fd;
    char buf[32];
    tar_begin();
    tar_dir("lib/");
    tar_file("lib/a.py", "print(1)");
    tar_link("lib/link", "a.py");
    tar_hard("lib/hard", "lib/a.py");
    tar_dir("empty");
    tar_end();
    lx_begin_tar(4 << 20);
    CHECK_EQ(lx_request.count, 0);
    CHECK_STR(lx_text("/lib/a.py"), "print(1)");
    CHECK_STR(lx_text("/lib/link"), "print(1)");
    CHECK_STR(lx_text("/lib/hard"), "print(1)");
    CHECK_STR(lx_ls("/lib"), "a.py 8;hard 8;link 10;");
    st = lx_st("/lib/a.py");
    CHECK_EQ(st.st_mode, S_IFREG | 0640);
    CHECK_EQ(st.st_mtim.tv_sec, 1000000000);
    CHECK_EQ(st.st_nlink, 2);
    CHECK_EQ(st.st_ino, lx_st("/lib/hard").st_ino);
    CHECK_EQ(lx_st("/lib").st_mode, S_IFDIR | 0750);
    CHECK_EQ(sys(SYS_open, S("/lib/a.py"), O_WRONLY), -EROFS);
    CHECK_EQ(sys(SYS_open, S("/lib/hard"), O_RDWR), -EROFS);
    CHECK_EQ(sys(SYS_open, S("/lib/a.py"), O_RDONLY | O_TRUNC), -EROFS);
    CHECK_EQ(sys(SYS_truncate, S("/lib/link"), 0), -EROFS);
    CHECK_EQ(sys(SYS_unlink, S("/lib/a.py")), -EROFS);
    CHECK_EQ(sys(SYS_unlink, S("/lib/link")), -EROFS);
    CHECK_EQ(sys(SYS_rmdir, S("/empty")), -EROFS);
    CHECK_EQ(sys(SYS_rename, S("/lib/a.py"), S("/tmp/a")), -EROFS);
    CHECK_EQ(lx_creat("/tmp/a", "a"), 0);
    CHECK_EQ(sys(SYS_rename, S("/tmp/a"), S("/lib/a.py")), -EROFS);
    CHECK_EQ(sys(SYS_chmod, S("/lib/a.py"), 0), -EROFS);
    CHECK_EQ(sys(SYS_utimensat, AT_FDCWD, S("/lib/a.py"), S(t), 0), -EROFS);
    CHECK_EQ(sys(SYS_access, S("/lib/a.py"), R_OK), 0);
    CHECK_EQ(sys(SYS_access, S("/lib/a.py"), W_OK), -EROFS);
    CHECK_EQ(sys(SYS_access, S("/lib/a.py"), X_OK), -EACCES);
    CHECK_EQ(sys(SYS_access, S("/lib"), R_OK | W_OK | X_OK), 0);
    fd = sys(SYS_open, S("/lib/a.py"), O_RDONLY);
    CHECK_EQ(sys(SYS_write, fd, S("x"), 1), -EBADF);
    CHECK_EQ(sys(SYS_ftruncate, fd, 0), -EINVAL);
    CHECK_EQ(sys(SYS_fchmod, fd, 0777), -EROFS);
    CHECK_EQ(sys(SYS_pread64, fd, S(buf), 32, 6), 2);
    CHECK_EQ(lx_creat("/lib/new", "new"), 0); /* beside it there is room */
    CHECK_EQ(sys(SYS_mkdir, S("/lib/dir"), 0777), 0);
    CHECK_EQ(lx_creat("/lib/dir/x", "x"), 0);
    CHECK_STR(lx_ls("/lib"), "a.py 8;dir 4;hard 8;link 10;new 8;");
    CHECK_EQ(sys(SYS_unlink, S("/lib/new")), 0);
    CHECK_STR(lx_text("/lib/new"), "E2");
    CHECK_EQ(lx_st("/lib/dir").st_mode, S_IFDIR | 0755);
}

/* ---- archives ---- */

static const char *lx_log_of(size_t *offset) { /* what the reading said; the offset in it */
    const char *p = strstr(lx_request.text, "offset ");
    *offset = p && lx_request.count ? strtoull(p + 7, NULL, 10) : SIZE_MAX;
    p = p ? strstr(p, ": ") : NULL;
    return lx_request.count && p ? p + 2 : "";
}

static void archive_names(void) {
    char name[300], deep[600], path[700];
    tar_begin();
    tar_file("./dot/./x", "1");
    tar_file("/abs/y", "2");
    tar_file("no/parents/z", "3");
    tar_file("old/", ""); /* a directory of an old archive */
    tar_dir("./");
    memset(name, 'n', 255);
    name[255] = 0;
    tar_long('L', name);
    tar_file("cut", "4");
    snprintf(deep, sizeof(deep), "p1/%s/p3", name);
    tar_pax('x', "path", deep);
    tar_file("cut2", "5");
    tar_pax('g', "path", "global");
    tar_raw("plain", '7', NULL, "6", 1, 1);
    memcpy(tar.p + tar_raw("sub/file", '0', NULL, "7", 1, 1) + 345, "pre/fix", 7);
    tar_sum(tar.p + tar.size - 1024);
    tar_long('K', "no/parents/z");
    tar_link("long", "cut");
    tar_pax('x', "linkpath", "plain");
    tar_hard("hard", "nothing");
    tar_file("dup", "first");
    tar_file("dup", "second");
    tar_hard("other", "dup");
    tar_file("dup", "third");
    tar_link("bin", "no/parents");
    tar_file("bin/tool", "8"); /* through a link */
    tar_end();
    lx_begin_tar(4 << 20);
    if (!CHECK_EQ(lx_request.count, 0)) printf("# %s\n", lx_request.text);
    CHECK_STR(lx_text("/dot/x"), "1");
    CHECK_STR(lx_text("/abs/y"), "2");
    CHECK_STR(lx_text("/no/parents/z"), "3");
    CHECK_EQ(lx_st("/no/parents").st_mode, S_IFDIR | 0755);
    CHECK(S_ISDIR(lx_st("/old").st_mode));
    snprintf(path, sizeof(path), "/%s", name);
    CHECK_STR(lx_text(path), "4");
    snprintf(path, sizeof(path), "/%s", deep);
    CHECK_STR(lx_text(path), "5");
    CHECK_STR(lx_text("/cut"), "E2");
    CHECK_STR(lx_text("/global"), "E2");
    CHECK_STR(lx_text("/plain"), "6");
    CHECK_STR(lx_text("/pre/fix/sub/file"), "7");
    CHECK_STR(lx_where("/long"), "no/parents/z");
    CHECK_STR(lx_text("/hard"), "6");
    CHECK_STR(lx_text("/dup"), "third");
    CHECK_STR(lx_text("/other"), "second");
    CHECK_STR(lx_text("/no/parents/tool"), "8");
}

static void archive_skips(void) {
    char longest[257], path[4097];
    size_t at, first;
    for (at = 0; at < 4096; at++) path[at] = at % 2 ? '/' : 'd';
    memcpy(path + 4094, "dd", 3); /* one too many, too */
    memset(longest, 'n', sizeof(longest));
    longest[256] = 0; /* one too many */
    tar_begin();
    tar_file("a", "1");
    first = tar_file("../x", "2");
    tar_file("b/../../x", "3");
    at = tar_raw("sub/file", '0', NULL, "3", 1, 1);
    memcpy(tar.p + at + 345, "pre/../fix", 10);
    tar_sum(tar.p + at);
    tar_file("b/.", "3");
    tar_long('L', longest);
    tar_file("short", "3");
    tar_long('L', path);
    tar_file("short", "3");
    tar_raw("fifo", '6', NULL, NULL, 0, 0);
    tar_raw("device", '3', NULL, NULL, 0, 0);
    tar_raw("sparse", 'S', NULL, NULL, 0, 0);
    tar_hard("h1", "nothing");
    tar_hard("h2", "a/b");
    tar_hard("h3", "h3");
    tar_link("empty", "");
    tar_link("loop1", "loop2");
    tar_link("loop2", "loop1");
    tar_file("loop1/x", "4");
    tar_file("a/x", "5"); /* below a file */
    tar_file("dev/null", "6");
    tar_file("tmp", "7");
    tar_file("proc/self/maps", "8");
    tar_file("proc/self/fd/0", "9");
    tar_file("proc/new", "9");
    tar_file("proc/self/new", "9");
    tar_dir("tmp");
    tar_dir("dir/full");
    tar_file("dir", "10");
    tar_hard("h4", "dev/null");
    tar_hard("h5", "dir");
    tar_file("z", "last");
    tar_end();
    lx_begin_tar(4 << 20);
    CHECK_EQ(lx_request.count, 1);
    CHECK_EQ(lx_request.number, 2);
    CHECK_STR(lx_log_of(&at), "it is not in a guest");
    CHECK_EQ(at, first);
    CHECK_STR(lx_ls("/"), "a 8;b 4;dev 4;dir 4;loop1 10;loop2 10;proc 4;tmp 4;z 8;");
    CHECK_STR(lx_ls("/b"), "");
    CHECK_STR(lx_ls("/proc"), "self 4;");
    CHECK_STR(lx_text("/proc/self/new"), "E2");
    CHECK_STR(lx_text("/a"), "1");
    CHECK_STR(lx_text("/z"), "last");
    CHECK_STR(lx_text("/dev/null"), "");
    CHECK_EQ(lx_st("/tmp").st_mode, S_IFDIR | 01777);
    CHECK_STR(lx_text("/loop1"), "E40");
}

/* A path may go through 40 links, as on Linux. */
static void links_in_a_row(void) {
    char name[16], to[16];
    int i;
    tar_begin();
    tar_file("l0", "there");
    for (i = 1; i <= 41; i++) {
        snprintf(name, sizeof(name), "l%d", i);
        snprintf(to, sizeof(to), "l%d", i - 1);
        tar_link(name, to);
    }
    tar_end();
    lx_begin_tar(4 << 20);
    CHECK_STR(lx_text("/l40"), "there");
    CHECK_STR(lx_text("/l41"), "E40");
}

/* Each archive is read up to the header at `at`, and says what is wrong there. */
static void lx_bad_tar(const char *why, size_t at) {
    size_t said;
    tar_file("never", "x");
    lx_begin_tar(4 << 20);
    CHECK_EQ(lx_request.count, 1);
    CHECK_EQ(lx_request.number, 1);
    CHECK_STR(lx_log_of(&said), why);
    CHECK_EQ(said, at);
    CHECK_STR(lx_text("/first"), "1");
    CHECK_STR(lx_text("/never"), "E2");
    CHECK_STR(lx_text("/bad"), "E2");
    tar_begin();
    tar_file("first", "1");
}

static void archives_that_lie(void) {
    static const char *const records[] = {"9 path=x", "99 path=x\n", "path=x\n", "0 path=x\n", "2 \n", " 9 path=x\n", "1 path=x\n",
                                          "99999999999999999999 path=x\n", "9 path=xx\n", "x", "99999999 path=x\n"};
    size_t at, i;
    tar_begin();
    tar_file("first", "1");
    at = tar_file("bad", "2");
    tar.p[at] ^= 1;
    lx_bad_tar("its checksum is wrong", at);
    at = tar_raw("bad", '0', NULL, "2", 1, 5000); /* beyond the end */
    lx_bad_tar("its size is wrong", at);
    at = tar_raw("bad", '0', NULL, "2", 1, 077777777777);
    lx_bad_tar("its size is wrong", at);
    at = tar_raw("bad", 'L', NULL, "2", 1, 1 << 20);
    lx_bad_tar("its size is wrong", at);
    at = tar_file("bad", "2");
    memset(tar.p + at + 124, 0xff, 12); /* a negative number */
    tar_sum(tar.p + at);
    lx_bad_tar("its size is wrong", at);
    at = tar_file("bad", "2");
    memset(tar.p + at + 125, 0xff, 11);
    tar.p[at + 124] = 0x80; /* 88 bits */
    tar_sum(tar.p + at);
    lx_bad_tar("its size is wrong", at);
    at = tar_file("bad", "2");
    memset(tar.p + at + 125, 0, 11);
    tar.p[at + 126] = tar.p[at + 135] = 1; /* 73 bits, of which 64 say 1 */
    tar.p[at + 124] = 0x80;
    tar_sum(tar.p + at);
    lx_bad_tar("its size is wrong", at);
    at = tar_file("bad", "2");
    memcpy(tar.p + at + 124, "12x", 3);
    tar_sum(tar.p + at);
    lx_bad_tar("its size is wrong", at);
    for (i = 0; i < HLSNAP_COUNT(records); i++) {
        at = tar_raw("bad", 'x', NULL, records[i], strlen(records[i]), strlen(records[i]));
        lx_bad_tar("its pax header is wrong", at);
    }
}

static void archives_that_end(void) {
    size_t at, i;
    tar_begin();
    tar_file("first", "1");
    tar_more(700); /* a zero block ends it */
    lx_begin_tar(4 << 20);
    CHECK_EQ(lx_request.count, 0);
    CHECK_STR(lx_text("/first"), "1");
    tar_begin();
    tar_file("first", "1");
    at = tar_file("cut", "22");
    tar.size -= 510; /* its two bytes are there yet */
    lx_begin_tar(4 << 20);
    CHECK_STR(lx_text("/cut"), "22");
    CHECK_EQ(lx_request.count, 0);
    tar_begin();
    tar_file("first", "1");
    at = tar_file("cut", "22");
    tar.size -= 511;
    lx_begin_tar(4 << 20);
    CHECK_STR(lx_text("/cut"), "E2");
    CHECK_EQ(lx_request.number, 1);
    tar_begin();
    tar_file("first", "1");
    at = tar.size;
    memset(tar_more(100), 7, 100);
    lx_begin_tar(4 << 20);
    CHECK_STR(lx_log_of(&i), "it is cut off");
    CHECK_EQ(i, at);
    tar_begin();
    memset(tar_more(511), 7, 511);
    lx_begin_tar(4 << 20);
    CHECK_EQ(lx_request.count, 1);
    tar_begin();
    at = tar_file("\xc3\xa4", "signed"); /* a sum of signed bytes */
    snprintf((char *)tar.p + at + 148, 8, "%06o", (unsigned)strtoul((char *)tar.p + at + 148, NULL, 8) - 512);
    tar_end();
    lx_begin_tar(4 << 20);
    CHECK_STR(lx_text("/\xc3\xa4"), "signed");
}

/* Every byte of a small archive, changed: nothing is read that is not in it (under ASan: its copy is a block of its own). */
static void archives_changed_at_random(void) {
    uint8_t *copy;
    size_t size, i;
    unsigned n;
    char out[3000];
    tar_begin();
    tar_dir("a");
    tar_file("a/f", "text");
    tar_link("a/l", "../a/f");
    tar_hard("h", "a/f");
    tar_long('L', "a/long/name");
    tar_file("cut", "5");
    tar_pax('x', "path", "pax/x");
    tar_file("cut2", "6");
    tar_end();
    size = tar.size;
    copy = (uint8_t *)malloc(size);
    memcpy(copy, tar.p, size);
    lx_seed = 7;
    for (n = 0; n < 3000; n++) {
        memcpy(tar.p, copy, size);
        for (i = 1 + lx_rand(4); i > 0; i--) {
            size_t h = lx_rand((uint32_t)(size / 512 - 2)) * 512, at = h + lx_rand(512);
            tar.p[at] = (uint8_t)lx_rand(256);
            if (lx_rand(2)) tar.p[at] = (uint8_t)"0127/x.L\0 "[lx_rand(10)];
            if (lx_rand(4)) tar_sum(tar.p + h);
        }
        tar.size = size - (lx_rand(3) ? 0 : lx_rand((uint32_t)size));
        lx_begin_tar(1 << 20);
        lx_list(false, "/", 1000, out, sizeof(out));
        lx_list(false, "/a", 1000, out, sizeof(out));
        lx_text("/a/f");
        lx_text("/a/l");
        lx_text("/h");
        lx_text("/a/long/name");
    }
    free(copy);
}

/* ---- memory ---- */

static void no_heap_at_all(void) {
    struct stat st;
    lx_begin(4096, NULL, 0);
    CHECK_EQ(sys(SYS_stat, S("/dev/null"), S(&st)), 0);
    CHECK_EQ(sys(SYS_open, S("/dev/null"), O_RDWR), 3);
    CHECK_EQ(sys(SYS_open, S("/tmp/x"), O_CREAT | O_RDWR, 0644), -ENOSPC);
    tar_begin();
    tar_file("x", "y");
    tar_end();
    lx_begin_tar(4096);
    CHECK_STR(lx_text("/x"), "y"); /* the first few nodes need none */
}

static void files_in_a_full_heap(void) {
    static uint8_t data[300000];
    int64_t fd, n = 0, i, free_before;
    char path[40];
    struct stat st;
    lx_begin(1 << 20, NULL, 0);
    fd = sys(SYS_open, S("/tmp/x"), O_CREAT | O_RDWR, 0644);
    free_before = (int64_t)(hlsnap__lx_mem.pages - hlsnap__lx.num_used);
    memset(data, 5, sizeof(data));
    do n = sys(SYS_write, fd, S(data), sizeof(data));
    while (n == (int64_t)sizeof(data));
    while (n > 0) n = sys(SYS_write, fd, S(data), 4000);
    CHECK_EQ(n, -ENOSPC);
    CHECK_EQ(sys(SYS_fstat, fd, S(&st)), 0);
    CHECK(st.st_size > 900000); /* nearly all of it */
    CHECK_EQ(sys(SYS_pread64, fd, S(data), sizeof(data), st.st_size - (int64_t)sizeof(data)), sizeof(data));
    for (i = 0; i < (int64_t)sizeof(data) && data[i] == 5;) i++;
    CHECK_EQ(i, sizeof(data));
    CHECK_EQ(sys(SYS_ftruncate, fd, 1 << 20), -ENOSPC);
    CHECK_EQ(sys(SYS_ftruncate, fd, INT64_MAX), -ENOSPC);
    CHECK_EQ(sys(SYS_ftruncate, fd, -1), -EINVAL);
    CHECK_EQ(sys(SYS_fallocate, fd, 0, 1 << 20, 1), -ENOSPC);
    CHECK_EQ(sys(SYS_fallocate, fd, 0, INT64_MAX, 1), -EFBIG);
    CHECK_EQ(sys(SYS_fallocate, fd, 0, 0, 0), -EINVAL);
    CHECK_EQ(sys(SYS_fallocate, fd, 8, 0, 1), -EOPNOTSUPP);
    CHECK_EQ(sys(SYS_ftruncate, fd, 5000), 0);
    CHECK_EQ(sys(SYS_pread64, fd, S(data), 10000, 0), 5000);
    CHECK_EQ(sys(SYS_ftruncate, fd, 20000), 0);
    CHECK_EQ(sys(SYS_pread64, fd, S(data), 20000, 0), 20000);
    for (i = 0; i < 20000 && data[i] == (i < 5000 ? 5 : 0);) i++;
    CHECK_EQ(i, 20000); /* what was cut off is zero now */
    CHECK_EQ(sys(SYS_unlink, S("/tmp/x")), 0);
    CHECK_EQ(sys(SYS_pread64, fd, S(data), 20000, 0), 20000); /* while it is open */
    CHECK_EQ(sys(SYS_close, fd), 0);
    CHECK(free_before - (int64_t)(hlsnap__lx_mem.pages - hlsnap__lx.num_used) <= 1); /* all is back */
    for (n = 0, i = 0; !n; i++) { /* names until there is no room */
        snprintf(path, sizeof(path), "/tmp/a file with a name %d", (int)i);
        n = sys(SYS_mkdir, S(path), 0755);
    }
    CHECK_EQ(n, -ENOSPC);
    CHECK(i > 2000);
    CHECK_EQ(sys(SYS_open, S("/tmp/another"), O_CREAT | O_RDWR, 0644), -ENOSPC);
    for (i -= 2; i >= 0; i--) {
        snprintf(path, sizeof(path), "/tmp/a file with a name %d", (int)i);
        CHECK_EQ(sys(SYS_rmdir, S(path)), 0);
    }
    CHECK_EQ(lx_creat("/tmp/another", "there is room again"), 0);
    CHECK_STR(lx_ls("/tmp"), "another 8;");
}

static void files_are_mapped(void) {
    static char big[300000];
    int64_t fd, a, b;
    char *p;
    lx_begin(4 << 20, NULL, 0);
    fd = sys(SYS_open, S("/tmp/x"), O_CREAT | O_RDWR, 0644);
    CHECK_EQ(sys(SYS_write, fd, S("0123456789"), 10), 10);
    a = sys(SYS_mmap, 0, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    b = sys(SYS_mmap, 0, 10, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
    CHECK(a > 0 && b > 0 && a % 4096 == 0 && a != b);
    p = (char *)(uintptr_t)a;
    CHECK(memcmp(p, "0123456789", 11) == 0);
    p[0] = 'a';
    ((char *)(uintptr_t)b)[1] = 'b';
    CHECK_STR(lx_text("/tmp/x"), "a123456789");
    CHECK_EQ(sys(SYS_pwrite64, fd, S("c"), 1, 2), 1);
    CHECK_EQ(p[2], 'c');
    p[5000] = 'd';
    CHECK_EQ(sys(SYS_ftruncate, fd, 4), 0);
    CHECK_EQ(p[5], 0);
    p[6] = 'e'; /* beyond the end: it does not come back */
    CHECK_EQ(sys(SYS_ftruncate, fd, 8192), 0);
    CHECK_EQ(p[6], 0);
    CHECK_EQ(p[5000], 0);
    CHECK_EQ(p[3], '3');
    p[7000] = 'f';
    CHECK_EQ(sys(SYS_ftruncate, fd, 60000), 0); /* it grows where it is */
    CHECK_EQ(sys(SYS_pread64, fd, S(big), 1, 7000), 1);
    CHECK_EQ(big[0], 'f');
    CHECK_EQ(sys(SYS_mmap, 0, 32768, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0), a); /* the same pages */
    CHECK_EQ(sys(SYS_pwrite64, fd, S(big), sizeof(big), 3 << 20), -ENOSPC); /* no room there, and it may not move */
    CHECK_EQ(sys(SYS_munmap, a, 32768), 0);
    CHECK_EQ(sys(SYS_close, fd), 0);
    CHECK_EQ(sys(SYS_unlink, S("/tmp/x")), 0);
    fd = sys(SYS_open, S("/tmp/y"), O_CREAT | O_RDWR, 0644);
    CHECK_EQ(sys(SYS_ftruncate, fd, 100), 0);
    a = sys(SYS_mmap, 0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    ((char *)(uintptr_t)a)[200] = 7;
    CHECK_EQ(sys(SYS_munmap, a, 4096), 0);
    CHECK_EQ(sys(SYS_ftruncate, fd, 4096), 0);
    CHECK_EQ(sys(SYS_pread64, fd, S(big), 1, 200), 1);
    CHECK_EQ(big[0], 0); /* nor does it come back later */
    a = sys(SYS_mmap, 0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    CHECK_EQ(sys(SYS_close, fd), 0);
    CHECK_EQ(sys(SYS_unlink, S("/tmp/y")), 0);
    memset((void *)(uintptr_t)a, 7, 4096); /* mapped, and nothing else */
    CHECK_EQ(lx_creat("/tmp/z", "zzz"), 0);
    CHECK_EQ(*(char *)(uintptr_t)a, 7);
    CHECK_EQ(sys(SYS_munmap, a, 4096), 0);
}

/* What a program writes behind the end of a file, into its last page, never becomes a part of it. */
static void behind_the_end(void) {
    char got[300];
    int64_t fd, at;
    size_t i, bad = 0;
    lx_begin(4 << 20, NULL, 0);
    fd = sys(SYS_open, S("/tmp/x"), O_CREAT | O_RDWR, 0600);
    CHECK_EQ(sys(SYS_write, fd, S("0123456789"), 10), 10);
    at = sys(SYS_mmap, 0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (!CHECK(at > 0)) return;
    memset((char *)(uintptr_t)at + 10, 'x', 4000);
    CHECK_EQ(sys(SYS_pwrite64, fd, S("end"), 3, 200), 3);
    CHECK_EQ(sys(SYS_pread64, fd, S(got), 300, 0), 203);
    for (i = 10; i < 200; i++) bad += got[i] != 0;
    CHECK_EQ(bad, 0);
    CHECK(memcmp(got, "0123456789", 10) == 0 && memcmp(got + 200, "end", 3) == 0);
}

static void files_are_mapped_by_those_who_may(void) {
    int64_t fd, a;
    tar_begin();
    tar_file("ro", "archive");
    tar_end();
    lx_begin_tar(4 << 20);
    CHECK_EQ(lx_creat("/tmp/z", "zzz"), 0);
    fd = sys(SYS_open, S("/ro"), O_RDONLY);
    CHECK_EQ(sys(SYS_mmap, 0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0), -EACCES);
    a = sys(SYS_mmap, 0, 4096, PROT_READ, MAP_SHARED, fd, 0);
    CHECK(a > 0);
    CHECK_STR((char *)(uintptr_t)a, "archive");
    fd = sys(SYS_open, S("/tmp/z"), O_WRONLY);
    CHECK_EQ(sys(SYS_mmap, 0, 4096, PROT_READ, MAP_PRIVATE, fd, 0), -EACCES);
    CHECK_EQ(sys(SYS_mmap, 0, 4096, PROT_READ, MAP_PRIVATE, 1, 0), -EACCES);
    CHECK_EQ(sys(SYS_mmap, 0, 4096, PROT_READ, MAP_PRIVATE, 77, 0), -EBADF);
    fd = sys(SYS_open, S("/tmp"), O_RDONLY);
    CHECK_EQ(sys(SYS_mmap, 0, 4096, PROT_READ, MAP_PRIVATE, fd, 0), -ENODEV);
    fd = sys(SYS_open, S("/dev/zero"), O_RDWR);
    a = sys(SYS_mmap, 0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
    CHECK(a > 0 && *(char *)(uintptr_t)a == 0);
    fd = sys(SYS_open, S("/tmp/z"), O_RDONLY);
    CHECK_EQ(sys(SYS_mmap, 0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0), -EACCES);
}

/* ---- directories ---- */

/* A new program with so many files in /d, which is opened. */
static int64_t lx_folder_of(int num) {
    char path[40];
    int i;
    lx_begin(4 << 20, NULL, 0);
    CHECK_EQ(sys(SYS_mkdir, S("/d"), 0755), 0);
    for (i = 0; i < num; i++) {
        snprintf(path, sizeof(path), "/d/%d", i);
        CHECK_EQ(lx_creat(path, ""), 0);
    }
    return sys(SYS_open, S("/d"), O_RDONLY | O_DIRECTORY);
}

static void directories_that_change(void) {
    static _Alignas(8) char buf[512];
    static char seen[600];
    char path[40];
    int64_t fd, n, at;
    int i, round = 0;
    fd = lx_folder_of(200);
    CHECK_EQ(sys(SYS_getdents64, fd, S(buf), 23), -EINVAL); /* "." takes 24 */
    CHECK_EQ(sys(SYS_getdents64, fd, S(buf), 24), 24);
    while ((n = sys(SYS_getdents64, fd, S(buf), sizeof(buf))) > 0) {
        for (at = 0; at < n;) {
            const struct lx_dirent *e = (const struct lx_dirent *)(const void *)(buf + at);
            at += e->size;
            if (e->name[0] != '.') seen[atoi(e->name)]++;
        }
        snprintf(path, sizeof(path), "/d/%d", 2 * round); /* one that was read, or comes; all odd ones stay */
        CHECK_EQ(sys(SYS_unlink, S(path)), 0);
        snprintf(path, sizeof(path), "/d/%d", 198 - 2 * round);
        sys(SYS_unlink, S(path));
        CHECK_EQ(lx_creat("/tmp/new", ""), 0);
        snprintf(path, sizeof(path), "/d/%d", 199 - 2 * round); /* replaced: the name stays */
        CHECK_EQ(sys(SYS_rename, S("/tmp/new"), S(path)), 0);
        snprintf(path, sizeof(path), "/d/%d", 300 + round++); /* what comes later does not make it endless */
        CHECK_EQ(lx_creat(path, ""), 0);
    }
    CHECK(round > 5);
    for (i = 1; i < 200; i += 2) CHECK_EQ(seen[i], 1);
    for (i = 0; i < 200; i += 2) CHECK(seen[i] <= 1);
    CHECK_EQ(sys(SYS_lseek, fd, 0, SEEK_SET), 0);
    for (i = 0; (n = sys(SYS_getdents64, fd, S(buf), sizeof(buf))) > 0;)
        for (at = 0; at < n; i++) at += ((const struct lx_dirent *)(const void *)(buf + at))->size;
    CHECK_EQ(i, 2 + 200 - 2 * round + round);
    CHECK_EQ(sys(SYS_getdents64, 1, S(buf), sizeof(buf)), -ENOTDIR);
    CHECK_EQ(sys(SYS_getdents64, 99, S(buf), sizeof(buf)), -EBADF);
}

static void directories_that_go(void) {
    static _Alignas(8) char buf[512];
    int64_t fd;
    lx_begin(4 << 20, NULL, 0);
    CHECK_EQ(sys(SYS_mkdir, S("/e"), 0755), 0);
    CHECK_EQ(sys(SYS_chdir, S("/e")), 0);
    fd = sys(SYS_open, S("."), O_RDONLY);
    CHECK_EQ(sys(SYS_rmdir, S("/e")), 0);
    CHECK_EQ(sys(SYS_getdents64, fd, S(buf), sizeof(buf)), -ENOENT);
    CHECK_EQ(sys(SYS_getcwd, S(buf), sizeof(buf)), -ENOENT);
    CHECK_EQ(sys(SYS_open, S("x"), O_CREAT | O_RDWR, 0600), -ENOENT);
    CHECK_EQ(sys(SYS_chdir, S("..")), 0);
    CHECK_EQ(sys(SYS_getcwd, S(buf), sizeof(buf)), 2);
    CHECK_STR(buf, "/");
    CHECK_EQ(sys(SYS_close, fd), 0);
    CHECK_EQ(sys(SYS_mkdir, S("/e"), 0755), 0);
    CHECK_EQ(sys(SYS_mkdir, S("/e/f"), 0755), 0);
    CHECK_EQ(sys(SYS_chdir, S("/e/f")), 0);
    CHECK_EQ(sys(SYS_rmdir, S("/e/f")), 0);
    CHECK_EQ(sys(SYS_rmdir, S("/e")), 0);
    CHECK_EQ(sys(SYS_mkdir, S("/g"), 0755), 0); /* not in the place of the one that is ".." */
    CHECK_EQ(sys(SYS_chdir, S("..")), 0);
    CHECK_EQ(sys(SYS_getcwd, S(buf), sizeof(buf)), -ENOENT);
    CHECK_EQ(sys(SYS_chdir, S("..")), 0);
    CHECK_EQ(sys(SYS_getcwd, S(buf), sizeof(buf)), 2);
    CHECK_EQ(sys(SYS_mkdir, S("/g/h"), 0755), 0);
    CHECK_EQ(sys(SYS_rename, S("/g"), S("/g/x")), -EINVAL);
    CHECK_EQ(sys(SYS_rename, S("/g"), S("/g/h/x")), -EINVAL);
    CHECK_EQ(sys(SYS_rename, S("/g"), S("/g/h")), -EINVAL);
    CHECK_EQ(sys(SYS_rename, S("/g/h"), S("/g")), -ENOTEMPTY);
    CHECK_EQ(sys(SYS_rename, S("/g"), S("/g")), 0);
    CHECK_EQ(sys(SYS_rename, S("/g/h"), S("/h")), 0);
    CHECK_EQ(sys(SYS_rename, S("/g"), S("/h")), 0);
    CHECK_EQ(sys(SYS_rename, S("/h"), S("/g/")), 0);
}

/* What came between the opening of a directory and the first look into it is there. */
static void directories_are_read_later(void) {
    int64_t fd, one;
    char buf[400];
    lx_begin(1 << 20, NULL, 0);
    fd = sys(SYS_open, S("/tmp"), O_RDONLY | O_DIRECTORY);
    one = sys(SYS_openat, fd, S("one"), O_CREAT | O_WRONLY, 0600);
    CHECK(one > 0);
    CHECK_EQ(sys(SYS_getdents64, fd, S(buf), sizeof(buf)), 24 + 24 + 24);
    CHECK_EQ(lx_creat("/tmp/two", ""), 0);
    CHECK_EQ(sys(SYS_getdents64, fd, S(buf), sizeof(buf)), 0);
    CHECK_EQ(sys(SYS_lseek, fd, 0, SEEK_SET), 0);
    CHECK_EQ(sys(SYS_getdents64, fd, S(buf), sizeof(buf)), 24 + 24 + 24 + 24);
}

static void paths_are_not_polled(void) { /* a descriptor of O_PATH: told at once, as on Linux */
    struct { int32_t fd; int16_t events, is; } p = {0, 1, 0};
    uint64_t sets[3] = {0, 0, 0}, zero[2] = {0, 0};
    int64_t fd;
    lx_begin(1 << 20, NULL, 0);
    fd = sys(SYS_open, S("/tmp"), LX_PATH);
    p.fd = (int32_t)fd;
    CHECK_EQ(sys(SYS_poll, &p, 1, -1), 1);
    CHECK_EQ(p.is, 0x20); /* POLLNVAL */
    sets[0] = sets[1] = sets[2] = 1ull << fd;
    CHECK_EQ(sys(SYS_select, fd + 1, &sets[0], &sets[1], &sets[2], zero), 3);
    CHECK(sets[0] == 1ull << fd && sets[1] == 1ull << fd && sets[2] == 1ull << fd);
    CHECK_EQ(sys(SYS_preadv, 0, 0, 0, -1, 0), -EINVAL); /* of preadv2 only, it is the place where one is */
    CHECK_EQ(sys(SYS_pwritev, 1, 0, 0, -1, 0), -EINVAL);
}

static void owners_and_room(void) {
    uint64_t f[15], g[15];
    int64_t fd;
    lx_begin(1 << 20, NULL, 0);
    CHECK_EQ(lx_creat("/tmp/x", "x"), 0);
    fd = sys(SYS_open, S("/tmp/x"), O_RDWR);
    CHECK_EQ(sys(SYS_chown, S("/tmp/x"), 1000, -1), 0);
    CHECK_EQ(sys(SYS_lchown, S("/tmp/x"), -1, 1000), 0);
    CHECK_EQ(sys(SYS_fchown, fd, 1000, 1000), 0);
    CHECK_EQ(sys(SYS_fchownat, -100, S("/tmp/x"), 1000, 1000, 0x100), 0);
    CHECK_EQ(sys(SYS_fchownat, fd, S(""), 1000, 1000, 0x1000), 0);
    CHECK_EQ(sys(SYS_fchownat, -100, S("/tmp/x"), 1000, 1000, 2), -EINVAL);
    CHECK_EQ(sys(SYS_chown, S("/tmp/x"), 0, 0), -EPERM);
    CHECK_EQ(sys(SYS_fchown, fd, 1000, 0), -EPERM);
    CHECK_EQ(sys(SYS_chown, S("/tmp/y"), 1000, 1000), -ENOENT);
    CHECK_EQ(sys(SYS_fchown, 77, 1000, 1000), -EBADF);
    CHECK_EQ(sys(SYS_statfs, S("/tmp/y"), f), -ENOENT);
    CHECK_EQ(sys(SYS_fstatfs, 77, f), -EBADF);
    CHECK_EQ(sys(SYS_statfs, S("/tmp"), f), 0);
    CHECK(f[0] == 0x01021994 && f[1] == 4096 && f[2] == 256 && f[3] > 100 && f[3] < 256 && f[8] == 255);
    CHECK_EQ(sys(SYS_ftruncate, fd, 40960), 0);
    CHECK_EQ(sys(SYS_fstatfs, fd, g), 0);
    CHECK_EQ(g[3], f[3] - 10);
}

/* As rm -r: what was read last goes, and the listing goes on behind it. */
static void directories_that_empty(void) {
    static _Alignas(8) char buf[300];
    char path[40];
    int64_t fd, n, at;
    int seen = 0;
    fd = lx_folder_of(100);
    while ((n = sys(SYS_getdents64, fd, S(buf), sizeof(buf))) > 0) {
        for (at = 0; at < n; seen++) {
            const struct lx_dirent *e = (const struct lx_dirent *)(const void *)(buf + at);
            at += e->size;
            snprintf(path, sizeof(path), "/d/%.10s", e->name);
        }
        CHECK_EQ(sys(SYS_unlink, S(path)), 0);
        CHECK_EQ(sys(SYS_mkdir, S("/e"), 0700), 0); /* takes the node */
        CHECK_EQ(sys(SYS_rmdir, S("/e")), 0);
    }
    CHECK_EQ(seen, 102);
}

/* As Linux 6.18 answers the same. */
static void names_to_the_byte(void) {
    struct stat st;
    char name[300];
    int64_t fd;
    lx_begin(1 << 20, NULL, 0);
    CHECK_EQ(sys(SYS_chdir, S("/tmp")), 0);
    memset(name, 'n', sizeof(name));
    name[255] = 0;
    CHECK_EQ(sys(SYS_mkdir, S(name), 0755), 0);
    CHECK_EQ(sys(SYS_stat, S(name), S(&st)), 0);
    CHECK_EQ(sys(SYS_rename, S(name), S("short")), 0);
    CHECK_EQ(sys(SYS_rename, S("short"), S(name)), 0);
    CHECK_EQ(sys(SYS_rmdir, S(name)), 0);
    fd = sys(SYS_open, S(name), O_CREAT | O_RDWR, 0600);
    CHECK(fd > 0);
    name[255] = 'n', name[256] = 0;
    CHECK_EQ(sys(SYS_mkdir, S(name), 0755), -ENAMETOOLONG);
    CHECK_EQ(sys(SYS_stat, S(name), S(&st)), -ENAMETOOLONG);
    CHECK_EQ(sys(SYS_open, S(name), O_CREAT | O_RDWR, 0600), -ENAMETOOLONG);
    name[255] = 0;
    CHECK_EQ(sys(SYS_chdir, S(name)), -ENOTDIR);
    CHECK_EQ(sys(SYS_fchdir, fd), -ENOTDIR);
    CHECK_EQ(sys(SYS_rmdir, S(name)), -ENOTDIR);
    CHECK_EQ(sys(SYS_chdir, S("missing")), -ENOENT);
    CHECK_EQ(sys(SYS_mkdir, S("d"), 0700), 0);
    CHECK_EQ(sys(SYS_mkdir, S("d"), 0700), -EEXIST);
    CHECK_EQ(sys(SYS_rmdir, S("d/.")), -EINVAL);
    CHECK_EQ(sys(SYS_rmdir, S(".")), -EINVAL);
    CHECK_EQ(sys(SYS_rmdir, S("d/..")), -ENOTEMPTY);
    CHECK_EQ(sys(SYS_unlink, S("d")), -EISDIR);
    CHECK_EQ(sys(SYS_unlinkat, AT_FDCWD, S(name), 0x400), -EINVAL);
    CHECK_EQ(sys(SYS_rmdir, S("d")), 0);
    CHECK_EQ(sys(SYS_unlink, S(name)), 0);
}

/* Neither the path without its end, nor a byte more than there is room for. */
static void where_to_the_byte(void) {
    char to[8] = "xxxxxxx";
    lx_begin(1 << 20, NULL, 0);
    CHECK_EQ(sys(SYS_chdir, S("/tmp")), 0);
    CHECK_EQ(sys(SYS_getcwd, S(to), 4), -ERANGE);
    CHECK_STR(to, "xxxxxxx");
    CHECK_EQ(sys(SYS_getcwd, S(to), 5), 5);
    CHECK(memcmp(to, "/tmp\0xx", 8) == 0);
}

static void names_and_limits(void) {
    static char path[5000], cwd[5000];
    struct stat st;
    int i;
    lx_begin(4 << 20, NULL, 0);
    memset(path, '/', 4096);
    CHECK_EQ(sys(SYS_stat, S(path), S(&st)), -ENAMETOOLONG);
    path[4095] = 0;
    CHECK_EQ(sys(SYS_stat, S(path), S(&st)), 0);
    CHECK_EQ(sys(SYS_stat, S(""), S(&st)), -ENOENT);
    for (i = 0; i < 60; i++) { /* deeper than a path can say */
        char name[101];
        memset(name, 'a' + i % 26, 100);
        name[100] = 0;
        CHECK_EQ(sys(SYS_mkdir, S(name), 0755), 0);
        CHECK_EQ(sys(SYS_chdir, S(name)), 0);
        if (i == 39) CHECK_EQ(sys(SYS_getcwd, S(cwd), sizeof(cwd)), 40 * 101 + 1);
    }
    CHECK_EQ(sys(SYS_getcwd, S(cwd), sizeof(cwd)), -ENAMETOOLONG);
    CHECK_EQ(strlen(cwd), 40 * 101);
    CHECK_EQ(sys(SYS_chdir, S(cwd)), 0);
    CHECK_EQ(sys(SYS_openat, 1, S("x"), O_RDONLY), -ENOTDIR);
    CHECK_EQ(sys(SYS_openat, 88, S("x"), O_RDONLY), -EBADF);
    CHECK_EQ(sys(SYS_openat, 88, S("/tmp"), O_RDONLY), 3);
    CHECK_EQ(sys(SYS_open, S("/tmp"), O_RDWR | 020200000), -EOPNOTSUPP); /* O_TMPFILE */
    CHECK_EQ(sys(SYS_open, S("/tmp/q"), O_CREAT | O_DIRECTORY), -EINVAL);
    CHECK_EQ(sys(SYS_newfstatat, AT_FDCWD, S("/tmp"), S(&st), 0x10000), -EINVAL);
    CHECK_EQ(sys(SYS_statx, AT_FDCWD, S("/tmp"), 0x6000, 0x7ff, S(cwd)), -EINVAL);
    CHECK_EQ(sys(SYS_renameat2, AT_FDCWD, S("/tmp"), AT_FDCWD, S("/x"), 2), -EINVAL);
    CHECK_EQ(sys(SYS_readlink, S("/dev/fd"), S(cwd), 0), -EINVAL);
    CHECK_EQ(sys(SYS_readlink, S("/tmp"), S(cwd), 9), -EINVAL);
    CHECK_EQ(sys(SYS_readlinkat, 3, S(""), S(cwd), 9), -ENOENT);
    CHECK_EQ(sys(SYS_openat, AT_FDCWD, S("/dev/fd"), LX_PATH | O_NOFOLLOW), 4);
    CHECK_EQ(sys(SYS_readlinkat, 4, S(""), S(cwd), 9), 9);
    CHECK(memcmp(cwd, "/proc/sel", 9) == 0);
    CHECK_EQ(sys(SYS_read, 4, S(cwd), 1), -EBADF);
}

static void times_are_kept(void) {
    struct timespec t[2] = {{5, 6}, {-7, 8}};
    struct { uint32_t mask, block; uint64_t a; uint32_t links, uid, gid; uint16_t mode; uint64_t ino, size, blocks, b; int64_t at[2], bt[2], ct[2], mt[2]; } x;
    struct stat st;
    lx_begin(1 << 20, NULL, 0);
    CHECK_EQ(lx_creat("/tmp/x", "abc"), 0);
    st = lx_st("/tmp/x");
    CHECK(st.st_mtim.tv_sec >= 1700000000 && st.st_ctim.tv_sec >= 1700000000);
    CHECK_EQ(sys(SYS_utimensat, AT_FDCWD, S("/tmp/x"), S(t), 0), 0);
    st = lx_st("/tmp/x");
    CHECK_EQ(st.st_atim.tv_sec, 5);
    CHECK_EQ(st.st_atim.tv_nsec, 6);
    CHECK_EQ(st.st_mtim.tv_sec, -7);
    CHECK_EQ(st.st_mtim.tv_nsec, 8);
    CHECK_EQ(st.st_blocks, 1);
    t[0].tv_nsec = UTIME_OMIT;
    t[1].tv_nsec = UTIME_NOW;
    CHECK_EQ(sys(SYS_utimensat, AT_FDCWD, S("/tmp/x"), S(t), 0), 0);
    st = lx_st("/tmp/x");
    CHECK_EQ(st.st_atim.tv_sec, 5);
    CHECK(st.st_mtim.tv_sec >= 1700000000);
    t[1].tv_nsec = -1;
    CHECK_EQ(sys(SYS_utimensat, AT_FDCWD, S("/tmp/x"), S(t), 0), -EINVAL);
    CHECK_EQ(sys(SYS_chmod, S("/tmp/x"), 04711), 0);
    memset(lx_bytes, 1, 300);
    CHECK_EQ(sys(SYS_statx, AT_FDCWD, S("/tmp/x"), 0, 0x7ff, S(lx_bytes[0])), 0);
    memcpy(&x, lx_bytes[0], sizeof(x));
    CHECK_EQ(x.mask, 0x7ff);
    CHECK_EQ(x.links, 1);
    CHECK_EQ(x.mode, S_IFREG | 04711);
    CHECK_EQ(x.size, 3);
    CHECK_EQ(x.ino, st.st_ino);
    CHECK_EQ(x.at[0], 5);
    CHECK_EQ(x.mt[0], st.st_mtim.tv_sec);
    CHECK_EQ(lx_bytes[0][256], 1); /* not beyond it */
}

/* ---- speed ---- */

static double lx_seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t); /* others run on this machine, too */
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}
static double lx_churn(int num) { /* make, list, and remove so many files in one directory */
    static _Alignas(8) char buf[2000];
    const double start = lx_seconds();
    char path[40];
    int64_t fd, n;
    int i, seen = 0;
    for (i = 0; i < num; i++) {
        snprintf(path, sizeof(path), "/tmp/file-%d", i);
        if (lx_creat(path, "x")) CHECK(false);
    }
    fd = sys(SYS_open, S("/tmp"), O_RDONLY);
    while ((n = sys(SYS_getdents64, fd, S(buf), sizeof(buf))) > 0) {
        int64_t at = 0;
        for (; at < n; seen++) at += ((const struct lx_dirent *)(const void *)(buf + at))->size;
    }
    CHECK_EQ(seen, num + 2);
    sys(SYS_close, fd);
    for (i = 0; i < num; i++) {
        snprintf(path, sizeof(path), "/tmp/file-%d", i * 7919 % num);
        if (sys(SYS_unlink, S(path))) CHECK(false);
    }
    CHECK_STR(lx_ls("/tmp"), "");
    return lx_seconds() - start;
}

static void many_files(void) {
    double start, small, large;
    struct stat st;
    char path[60];
    int i;
    tar_begin();
    for (i = 0; i < 50000; i++) {
        snprintf(path, sizeof(path), "usr/lib/some/dir%d/member-%d", i / 100, i);
        tar_file(path, "x");
    }
    tar_end();
    start = lx_seconds();
    lx_begin_tar(64 << 20);
    printf("# 50,000 members: %.1f ms with the copy of the archive", (lx_seconds() - start) * 1e3);
    start = lx_seconds();
    hlsnap__lx_files_setup();
    small = lx_seconds() - start;
    printf(", %.1f ms without\n", small * 1e3);
    CHECK(small < 1);
    start = lx_seconds();
    for (i = 0; i < 50000; i++) {
        snprintf(path, sizeof(path), "/usr/lib/some/dir%d/member-%d", i / 100, i);
        if (sys(SYS_stat, S(path), S(&st))) CHECK(false);
    }
    printf("# a stat of each: %.1f ms\n", (lx_seconds() - start) * 1e3);
    CHECK_EQ(lx_request.count, 0);
    lx_begin(64 << 20, NULL, 0);
    lx_churn(100);
    small = lx_churn(2000);
    large = lx_churn(20000);
    printf("# made, listed and removed: 2,000 files %.1f ms, 20,000 %.1f ms\n", small * 1e3, large * 1e3);
    CHECK(large < 60 * small); /* linear, with room for a busy machine */
}

#define LX_FILE_TESTS \
    TEST(fds_are_given_and_shared), TEST(standard_descriptors), TEST(vectors_and_counts), TEST(locks_succeed), TEST(devices), \
    TEST(proc_self), TEST(archive_is_read_only), TEST(archive_names), TEST(archive_skips), TEST(behind_the_end), TEST(links_in_a_row), TEST(archives_that_lie), TEST(archives_that_end), \
    TEST(archives_changed_at_random), TEST(files_in_a_full_heap), TEST(no_heap_at_all), TEST(files_are_mapped), TEST(files_are_mapped_by_those_who_may), TEST(directories_that_change), TEST(directories_that_go), \
    TEST(directories_that_empty), TEST(directories_are_read_later), TEST(paths_are_not_polled), TEST(owners_and_room), TEST(names_to_the_byte), TEST(names_and_limits), TEST(where_to_the_byte), TEST(times_are_kept), TEST(many_files), TEST(files_as_on_the_kernel)
#endif

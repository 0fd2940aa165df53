/* test_crash.c - every operation on a layout is traced; it is killed after each of its system calls, and each of them fails,
   in turn. What a kill leaves is the old state or the new one; what a failure leaves is the old state; nothing leaks.
   cc:  cc -std=gnu11 -I.. test_crash.c -lcjson -lcrypto -o test_crash
   run: ./test_crash [name]      works in a directory of its own under $TMPDIR, /dev/shm or /tmp; QUICK=1: every seventh point
   A kill ends a process, not the power: what was written stays, synced or not. The order of syncs is test_oci's business. */
#define _GNU_SOURCE 1
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <openssl/sha.h>
#include "test.h"

static long alloc_live;        /* blocks of hlsnap's, and of cJSON's */
static void *t_malloc(size_t n) {
    void *p = malloc(n);
    __atomic_add_fetch(&alloc_live, p != NULL, __ATOMIC_RELAXED);
    return p;
}
static void t_free(void *p) {
    __atomic_sub_fetch(&alloc_live, p != NULL, __ATOMIC_RELAXED);
    free(p);
}
/* Nothing here is gone for a moment only, as on a file server: who waits for it does so for a fiftieth of the time. */
static int t_nanosleep(const struct timespec *nap) {
    const struct timespec shorter = {0, (nap->tv_sec * 1000000000 + nap->tv_nsec) / 50};
    return nanosleep(&shorter, NULL);
}
static bool is_later;          /* much: what was written has settled */
static int t_clock_gettime(clockid_t clock, struct timespec *t) {
    const int r = clock_gettime(clock, t);
    if (is_later && clock == CLOCK_REALTIME) t->tv_sec += 1000;
    return r;
}
#define nanosleep(nap, rest) t_nanosleep(nap)
#define clock_gettime(clock, t) t_clock_gettime(clock, t)
#define HLSNAP_MALLOC(n) t_malloc(n)
#define HLSNAP_FREE(p) t_free(p)
#define HLSNAP_IMPLEMENTATION
#include "hlsnap_oci.h"
#include "oci_make.h"

/* ---- what is done, and what it makes of what ---- */

/* NO_TMPFILE, NO_OPENAT2: the kernel has none. THREADS: it makes some; kills only. SAME: it changes nothing. DAMAGED: blobs are
   not sound before. ONCE: not found when it is done again. PARTIAL: after a failure part of it may be done. OTHER: may store the
   same in another way when it cannot read what is there. CLEANS: removes temporary names, which a kill may leave. */
enum { NO_TMPFILE = 1, NO_OPENAT2 = 2, THREADS = 4, SAME = 8, DAMAGED = 16, ONCE = 32, PARTIAL = 64, OTHER = 128, CLEANS = 256 };

typedef struct op {
    const char *name;
    const char *before, *after;  /* "v1=A keep=B": tags and what they mean; before NULL: no directory, "": an empty one */
    hlsnap_result (*run)(const struct op *o);
    const char *tag;             /* for run */
    char content;                /* what run saves, or finds when it loads */
    void (*prepare)(const struct op *o, const char *dir); /* instead of only saving `before` */
    void (*enter)(void);         /* after each preparation, in the parent: makes contents that depend on the layout */
    uint32_t flags;
    int min_killed, min_failed;  /* points; fewer mean that the harness no longer reaches the library */
} op;

#define DIR_NAME "layout"      /* what operations work on; below `home`, the working directory */
#define TEMPLATE "template"    /* what it is reset to */
static char home[200];
static hlsnap_error err;
static hlsnap_snapshot *contents[4]; /* 'A', 'B', ... */
static hlsnap_snapshot *loaded;      /* by run */
static int base_fds;                 /* open in a process that holds no snapshot */

static hlsnap_snapshot *content(char c) { return contents[c - 'A']; }

/* Two layers, one of them with a page of zeros; more than one chunk, and as little as that allows. */
static hlsnap_snapshot *small_new(uint64_t seed) {
    static const hlsnap__extent e[] = {{0, 4, 0, 0}, {6, 3, 1, 0}, {20, 15, 0, 4}, {50, 1, 1, 3}, {276, 1, 0, 19}};
    return snapshot_over(guest_new(), layer_new(20, seed, 10), layer_new(4, seed + 100, 99), e, HLSNAP_COUNT(e));
}

/* One over the first layer of another, and four pages of its own. */
static hlsnap_snapshot *small_next(const hlsnap_snapshot *from, uint64_t seed) {
    static const hlsnap__extent e[] = {{0, 4, 0, 0}, {6, 3, 1, 0}, {20, 12, 0, 5}, {51, 1, 1, 3}};
    hlsnap__retain(&from->guest->refs);
    hlsnap__retain(&from->layers[0]->refs);
    return snapshot_over(from->guest, from->layers[0], layer_new(4, seed, 99), e, HLSNAP_COUNT(e));
}

static void contents_make(void) {
    contents[0] = small_new(1);
    contents[1] = small_new(2);
}

static void contents_release(void) {
    size_t i;
    for (i = 0; i < HLSNAP_COUNT(contents); i++) {
        hlsnap_snapshot_release(contents[i]);
        contents[i] = NULL;
    }
}

static hlsnap_result run_save(const op *o) {
    hlsnap_oci_desc d = HLSNAP_ZERO;
    hlsnap_oci_digest digest;
    d.threads = o->flags & THREADS ? 4 : 0;
    d.created = -1;
    return hlsnap_oci_save(DIR_NAME, o->tag, content(o->content), &d, &digest, &err);
}
static hlsnap_result run_load_with(const op *o, hlsnap_oci_guard guard) {
    hlsnap_oci_desc d = HLSNAP_ZERO;
    hlsnap_result r;
    d.guard = guard;
    d.threads = o->flags & THREADS ? 4 : 0;
    r = hlsnap_oci_load(DIR_NAME, o->tag, &d, &loaded, NULL, &err);
    CHECK_EQ(r == HLSNAP_OK, loaded != NULL);
    return r;
}
static hlsnap_result run_load(const op *o) { return run_load_with(o, HLSNAP_OCI_GUARD_PRIVATE); }
static hlsnap_result run_load_file(const op *o) { return run_load_with(o, HLSNAP_OCI_GUARD_NONE); }

static hlsnap_result run_load_cached(const op *o) { /* the second load finds what the first one left */
    hlsnap_oci_cache *cache;
    hlsnap_snapshot *first = NULL;
    hlsnap_oci_desc d = HLSNAP_ZERO;
    hlsnap_result r = hlsnap_oci_cache_create(UINT64_MAX, &cache, &err);
    is_later = true;
    d.cache = cache;
    if (!r) r = hlsnap_oci_load(DIR_NAME, o->tag, &d, &first, NULL, &err);
    if (!r) r = hlsnap_oci_load(DIR_NAME, o->tag, &d, &loaded, NULL, &err);
    CHECK(r || (loaded->layers[0] == first->layers[0] && loaded->layers[1] == first->layers[1]));
    hlsnap_snapshot_release(first);
    hlsnap_oci_cache_destroy(cache);
    is_later = false;
    return r;
}
static hlsnap_result run_resolve(const op *o) {
    hlsnap_oci_digest digest;
    return hlsnap_oci_resolve(DIR_NAME, o->tag, &digest, &err);
}

/* ---- trees: what a directory holds, read without the library ---- */

typedef struct entry { char path[150]; mode_t mode; ino_t ino; long long size; uint8_t sum[32]; } entry; /* ino: not compared */
typedef struct tree { int num; entry e[64]; } tree;

static tree *tree_into;
static int tree_add(const char *path, const struct stat *st, int type, struct FTW *ftw) {
    static uint8_t data[1 << 20];
    entry *e = &tree_into->e[tree_into->num];
    (void)type, (void)ftw;
    if (!CHECK(tree_into->num < (int)HLSNAP_COUNT(tree_into->e) && strlen(path) < sizeof(e->path))) return 1;
    memset(e, 0, sizeof(*e));
    strcpy(e->path, strchr(path, '/') ? strchr(path, '/') + 1 : ".");
    e->mode = st->st_mode;
    e->ino = st->st_ino;
    e->size = S_ISDIR(st->st_mode) ? 0 : st->st_size;
    if (strcmp(e->path, ".hlsnap.lock") == 0 && CHECK(e->size <= 1)) e->size = 0; /* says no more than that there was an index */
    else if (S_ISREG(st->st_mode)) {
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        CHECK(fd >= 0 && e->size < (long long)sizeof(data) && read(fd, data, sizeof(data)) == e->size);
        SHA256(data, (size_t)e->size, e->sum);
        close(fd);
    }
    tree_into->num++;
    return 0;
}

static void tree_read(tree *t, const char *dir) { /* empty when there is no directory */
    t->num = 0;
    tree_into = t;
    nftw(dir, tree_add, 16, FTW_PHYS);
}

static const entry *tree_find(const tree *t, const char *path) {
    int i;
    for (i = 0; i < t->num; i++)
        if (strcmp(t->e[i].path, path) == 0) return &t->e[i];
    return NULL;
}

/* The tree has exactly this entry. */
static bool tree_has(const tree *t, const entry *e) {
    const entry *f = tree_find(t, e->path);
    return f && f->mode == e->mode && f->size == e->size && memcmp(f->sum, e->sum, 32) == 0;
}

static bool tree_part(const tree *part, const tree *whole) {
    int i;
    for (i = 0; i < part->num; i++)
        if (!tree_has(whole, &part->e[i])) return false;
    return true;
}
static bool tree_same(const tree *a, const tree *b) { return a->num == b->num && tree_part(a, b); }

static bool tree_part_by_name(const tree *part, const tree *whole) {
    int i;
    for (i = 0; i < part->num; i++)
        if (!tree_find(whole, part->e[i].path)) return false;
    return true;
}

static bool is_temp(const char *path) { return strncmp(path, ".hlsnap-", 8) == 0; }

static bool tree_has_temps(const tree *t) {
    int i;
    for (i = 0; i < t->num; i++)
        if (is_temp(t->e[i].path)) return true;
    return false;
}

/* A copy without temporary names, which a kill may leave. */
static void tree_without_temps(tree *to, const tree *from) {
    int i;
    to->num = 0;
    for (i = 0; i < from->num; i++)
        if (!is_temp(from->e[i].path)) to->e[to->num++] = from->e[i];
}

/* What of `of` is not in `other`; all of it without one. */
static void tree_show(const char *what, const tree *of, const tree *other) {
    int i;
    for (i = 0; i < of->num; i++) {
        const entry *e = &of->e[i];
        if (!other || !tree_has(other, e))
            printf("#   %s: %s %o %lld %02x%02x..\n", what, e->path, (unsigned)e->mode, e->size, e->sum[0], e->sum[1]);
    }
}

/* Every name among the blobs is the sha256 of a regular file. */
static bool tree_sums_right(const tree *t) {
    int i, k;
    for (i = 0; i < t->num; i++) {
        const entry *e = &t->e[i];
        char hex[65];
        if (strncmp(e->path, "blobs/sha256/", 13) != 0) continue;
        for (k = 0; k < 32; k++) sprintf(hex + 2 * k, "%02x", e->sum[k]);
        if (!S_ISREG(e->mode) || strcmp(hex, e->path + 13) != 0) return false;
    }
    return true;
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw) {
    (void)st, (void)type, (void)ftw;
    return remove(path);
}
static void rm_rf(const char *path) { nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS); }

static int copy_one(const char *path, const struct stat *st, int type, struct FTW *ftw) {
    static uint8_t data[1 << 20];
    char to[200];
    int in, out;
    ssize_t n;
    (void)type, (void)ftw;
    snprintf(to, sizeof(to), DIR_NAME "%s", path + strlen(TEMPLATE));
    if (S_ISDIR(st->st_mode)) return CHECK_EQ(mkdir(to, st->st_mode & 0777), 0) ? 0 : 1;
    in = open(path, O_RDONLY | O_CLOEXEC);
    out = open(to, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, st->st_mode & 0777);
    n = read(in, data, sizeof(data));
    CHECK(n >= 0 && write(out, data, (size_t)n) == n);
    return close(in) || close(out);
}

static void put(const char *dir, const char *name, const char *text) {
    char path[200];
    int fd;
    snprintf(path, sizeof(path), "%s/%s", dir, name);
    fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    CHECK_EQ(write(fd, text, strlen(text)), (ssize_t)strlen(text));
    close(fd);
}

/* ---- a traced child ---- */

#define MAX_CALLS 2000
#define MARK 0x68736e61        /* argument of getppid: the operation starts, or has ended */
enum { MARK_BEGIN = 1, MARK_END = 2 };

#if defined(__SANITIZE_ADDRESS__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SANITIZED 1
#endif
#endif
#ifndef SANITIZED
#define SANITIZED 0
#endif

/* What happens to call number `at`, counted from 1. */
typedef enum kind { NOTHING, KILL, TORN, SHORT, FAIL, FROM, EVERY, BESIDE } kind;
typedef struct point {
    kind kind;                 /* KILL after it; TORN: it is a write, half of which happens, and then a kill; SHORT: half of a
                                  read or write; FAIL; FROM: all from it on fail; EVERY: number at, 2 at, 3 at, ... fails;
                                  BESIDE: it waits after it for what others do */
    int at, number;            /* number: errno */
} point;

typedef struct call { long nr; uint64_t args[6]; } call;
typedef struct tracing {
    pid_t pid;
    const op *o;
    point p;
    call calls[MAX_CALLS];     /* those that count */
    int num, pending;          /* pending: errno that the call at hand will return */
    bool active, done, killed, hit;
    struct stat unsynced;      /* the file whose fsync failed, if one did */
    int status;                /* of the child, at its end */
} tracing;
static tracing now_traced, reference;

typedef struct report {        /* the child's own, in shared memory */
    hlsnap_result r;
    int os_errno, bad, done;
    char msg[512];
} report;
static report *told;

static bool is_one_of(long nr, const long *list) {
    while (*list >= 0 && *list != nr) list++;
    return *list >= 0;
}

/* Calls of the allocator's and of thread libraries come and go; all others are the operation's. */
static bool call_counts(const call *c) {
    static const long not[] = {SYS_brk,    SYS_munmap, SYS_mprotect, SYS_madvise,       SYS_mremap,    SYS_futex, SYS_sched_yield,
                               SYS_rseq,   SYS_getpid, SYS_gettid,   SYS_clock_gettime, SYS_getrandom, SYS_clone, SYS_clone3,
                               SYS_exit,   SYS_set_robust_list, SYS_rt_sigprocmask, SYS_rt_sigaction, SYS_sigaltstack,
                               SYS_sched_getaffinity, -1};
    return !is_one_of(c->nr, not) && !(c->nr == SYS_mmap && c->args[3] & MAP_ANONYMOUS);
}

/* Whether a call may fail like this. */
static bool call_can_fail(const call *c, int number) {
    static const long opens[] = {SYS_open, SYS_openat, SYS_openat2, SYS_memfd_create, SYS_dup, -1};
    static const long grows[] = {SYS_open, SYS_openat, SYS_openat2, SYS_memfd_create, SYS_write, SYS_pwrite64, SYS_fallocate,
                                 SYS_ftruncate, SYS_mkdir, SYS_mkdirat, SYS_link, SYS_linkat, SYS_rename, SYS_renameat,
                                 SYS_renameat2, SYS_fsync, SYS_fdatasync, SYS_fchmod, SYS_copy_file_range, -1};
    if (c->nr == SYS_close) return false;
    if (c->nr == SYS_mmap) return number == ENOMEM;
    return number == EMFILE ? is_one_of(c->nr, opens) : number == ENOSPC ? is_one_of(c->nr, grows) : number != ENOMEM;
}

static bool call_writes(const call *c) { return (c->nr == SYS_write || c->nr == SYS_pwrite64) && c->args[2] > 1; }
static bool call_shortens(const call *c) {
    return call_writes(c) || ((c->nr == SYS_read || c->nr == SYS_pread64) && c->args[2] > 1);
}

static const char *call_name(long nr) {
    static const struct { long nr; const char *name; } names[] = {
        {SYS_open, "open"}, {SYS_openat, "openat"}, {SYS_openat2, "openat2"}, {SYS_close, "close"}, {SYS_fstat, "fstat"},
        {SYS_newfstatat, "fstatat"}, {SYS_fcntl, "fcntl"}, {SYS_mkdir, "mkdir"}, {SYS_mkdirat, "mkdirat"}, {SYS_rmdir, "rmdir"},
        {SYS_read, "read"}, {SYS_write, "write"}, {SYS_pread64, "pread"}, {SYS_pwrite64, "pwrite"}, {SYS_fsync, "fsync"},
        {SYS_linkat, "linkat"}, {SYS_unlink, "unlink"}, {SYS_unlinkat, "unlinkat"}, {SYS_renameat, "renameat"},
        {SYS_renameat2, "renameat2"}, {SYS_fchmod, "fchmod"}, {SYS_fallocate, "fallocate"}, {SYS_ftruncate, "ftruncate"},
        {SYS_memfd_create, "memfd_create"}, {SYS_mmap, "mmap"}, {SYS_getdents64, "getdents"}, {SYS_lseek, "lseek"}};
    static char text[20];
    size_t i;
    for (i = 0; i < HLSNAP_COUNT(names); i++)
        if (names[i].nr == nr) return names[i].name;
    snprintf(text, sizeof(text), "call %ld", nr);
    return text;
}

static void poke(pid_t tid, size_t reg, long value) { ptrace(PTRACE_POKEUSER, tid, (void *)reg, (void *)value); }

/* The errno with which this kernel or this point of failure refuses call number num; 0 = it does not. */
static int call_fault(const tracing *t, const call *c, int num) {
    const point p = t->p;
    const bool mine = p.kind == FAIL ? num == p.at : p.kind == FROM ? num >= p.at : p.kind == EVERY && num % p.at == 0;
    if (t->o->flags & NO_TMPFILE && c->nr == SYS_openat && (c->args[2] & O_TMPFILE) == O_TMPFILE) return EOPNOTSUPP;
    if (t->o->flags & NO_OPENAT2 && c->nr == SYS_openat2) return ENOSYS;
    return mine && call_can_fail(c, p.number) ? p.number : 0;
}

static int unsynced_fd = -1; /* holds that file: ext4 would soon give its inode number to another */
static void unsynced(tracing *t, pid_t tid, const call *c) {
    char path[60];
    snprintf(path, sizeof(path), "/proc/%d/fd/%d", (int)tid, (int)c->args[0]);
    if (unsynced_fd >= 0) close(unsynced_fd);
    unsynced_fd = open(path, O_PATH | O_CLOEXEC);
    CHECK_EQ(fstat(unsynced_fd, &t->unsynced), 0);
}

static void on_entry(tracing *t, pid_t tid, const call *c) {
    if (c->nr == SYS_getppid && c->args[0] == MARK) {
        t->active = c->args[1] == MARK_BEGIN;
        t->done = !t->active;
        return;
    }
    if (!t->active || !call_counts(c)) return;
    if (t->num < MAX_CALLS) t->calls[t->num] = *c;
    t->num++;
    t->pending = call_fault(t, c, t->num);
    if (t->pending) poke(tid, offsetof(struct user_regs_struct, orig_rax), -1);
    if (t->pending && t->pending != EINTR && (c->nr == SYS_fsync || c->nr == SYS_fdatasync)) unsynced(t, tid, c);
    if (t->num != t->p.at) t->hit |= t->pending && (t->p.kind == FROM || t->p.kind == EVERY);
    else t->hit = true;
    if (t->num == t->p.at && ((t->p.kind == SHORT && call_shortens(c)) || (t->p.kind == TORN && call_writes(c))))
        poke(tid, offsetof(struct user_regs_struct, rdx), (long)((c->args[2] + 1) / 2));
}

static void (*beside_it)(void);
static void on_exit_of(tracing *t, pid_t tid) {
    if (t->pending) poke(tid, offsetof(struct user_regs_struct, rax), -t->pending);
    t->pending = 0;
    if (t->active && t->p.kind == BESIDE && t->num == t->p.at && !t->killed) {
        t->killed = true;
        beside_it();
    }
    if (t->active && !t->killed && (t->p.kind == KILL || t->p.kind == TORN) && t->num >= t->p.at) {
        t->killed = true;
        kill(t->pid, SIGKILL);
    }
}

/* One stop of one thread; the signal to give it, 0 = none. */
static int on_stop(tracing *t, pid_t tid, int status) {
    struct __ptrace_syscall_info info;
    call c;
    const int sig = WSTOPSIG(status);
    if (sig != (SIGTRAP | 0x80)) return status >> 16 || sig == SIGSTOP || sig == SIGTRAP ? 0 : sig;
    memset(&info, 0, sizeof(info));
    if (ptrace(PTRACE_GET_SYSCALL_INFO, tid, (void *)sizeof(info), &info) < 0) return 0;
    if (info.op == PTRACE_SYSCALL_INFO_ENTRY) {
        c.nr = (long)info.entry.nr;
        memcpy(c.args, info.entry.args, sizeof(c.args));
        on_entry(t, tid, &c);
    } else if (info.op == PTRACE_SYSCALL_INFO_EXIT) {
        on_exit_of(t, tid);
    }
    if (t->num >= MAX_CALLS && !t->killed) t->killed = kill(t->pid, SIGKILL) == 0; /* endless */
    return 0;
}

/* Lets the child run to its end. */
static void drive(tracing *t) {
    pid_t tid;
    int status;
    while ((tid = waitpid(-1, &status, __WALL)) > 0 || errno == EINTR) {
        if (tid == t->pid && !WIFSTOPPED(status)) {
            t->status = status;
            return;
        }
        if (tid > 0 && WIFSTOPPED(status)) {
            const long sig = on_stop(t, tid, status);
            ptrace(t->done ? PTRACE_CONT : PTRACE_SYSCALL, tid, NULL, (void *)sig);
        }
    }
}

static int fds_open(void) {
    int fd, n = 0;
    for (fd = 0; fd < 256; fd++) n += fcntl(fd, F_GETFD) >= 0;
    return n;
}
static int maps_of_memfds(void) {
    char line[400];
    FILE *f = fopen("/proc/self/maps", "r");
    int n = 0;
    while (f && fgets(line, sizeof(line), f)) n += strstr(line, "memfd:hlsnap") != NULL || strstr(line, "/blobs/sha256/") != NULL;
    if (f) fclose(f);
    return n;
}

/* Runs the operation, checks what it says, and that it keeps nothing. In a child that ends soon. */
static void perform(const op *o, bool traced) {
    memset(&err, 0, sizeof(err));
    loaded = NULL;
    if (traced) syscall(SYS_getppid, MARK, MARK_BEGIN);
    told->r = o->run(o);
    if (traced) syscall(SYS_getppid, MARK, MARK_END);
    CHECK_EQ(told->r, err.code);
    if (told->r) CHECK(strncmp(err.msg, "hlsnap_oci_", 11) == 0 && strstr(err.msg, ": ") != NULL);
    if (loaded) check_same(content(o->content), loaded);
    hlsnap_snapshot_release(loaded);
    contents_release(); /* where a save may note what it stored */
    CHECK_EQ(alloc_live, 0);
    CHECK_EQ(fds_open(), base_fds);
    CHECK_EQ(maps_of_memfds(), 0);
    told->os_errno = err.os_errno;
    memcpy(told->msg, err.msg, sizeof(told->msg));
    told->bad = test_bad;
    told->done = 1;
}

static pid_t child_start(const op *o, bool traced) {
    pid_t pid;
    memset(told, 0, sizeof(*told));
    fflush(stdout);
    if (unsynced_fd >= 0) close(unsynced_fd);
    unsynced_fd = -1;
    pid = fork();
    if (pid) return pid;
    test_bad = 0;
    alarm(20); /* a lock that nobody gives back, a loop that never ends */
    if (traced && (ptrace(PTRACE_TRACEME, 0, NULL, NULL) != 0 || raise(SIGSTOP) != 0)) _exit(99);
    perform(o, traced);
    fflush(stdout);
    _exit(0);
}

/* Runs the operation in a traced child with one point of failure; false when it cannot be traced. */
static bool trace(tracing *t, const op *o, point p) {
    const long options = PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL | (o->flags & THREADS ? PTRACE_O_TRACECLONE : 0);
    struct __ptrace_syscall_info info;
    int status;
    memset(t, 0, sizeof(*t));
    t->o = o;
    t->p = p;
    t->pid = child_start(o, true);
    if (t->pid < 0 || waitpid(t->pid, &status, 0) != t->pid || !WIFSTOPPED(status)) return false;
    if (ptrace(PTRACE_SETOPTIONS, t->pid, NULL, (void *)options) != 0 ||
        ptrace(PTRACE_GET_SYSCALL_INFO, t->pid, (void *)sizeof(info), &info) < 0) {
        kill(t->pid, SIGKILL);
        waitpid(t->pid, &status, 0);
        return false;
    }
    ptrace(PTRACE_SYSCALL, t->pid, NULL, NULL);
    drive(t);
    return true;
}

/* Runs it without a tracer. */
static hlsnap_result again(const op *o) {
    int status = 0;
    const pid_t pid = child_start(o, false);
    CHECK(pid > 0 && waitpid(pid, &status, 0) == pid);
    CHECK_EQ(status, 0);
    CHECK(told->done && !told->bad);
    return told->r;
}

/* ---- states ---- */

static tree tree_before, tree_after;

static const char *tag_in(const char *spec, const char *tag) { /* its content's letter, or NULL */
    char want[20];
    const char *at;
    snprintf(want, sizeof(want), "%s=", tag);
    at = spec ? strstr(spec, want) : NULL;
    return at ? at + strlen(want) : NULL;
}

/* The tags mean just this; what is not there is not found, also where there is no index yet. */
static void check_tags(const char *spec) {
    static const char *const tags[] = {"v1", "v2", "keep"};
    size_t i;
    for (i = 0; i < HLSNAP_COUNT(tags); i++) {
        const char *c = tag_in(spec, tags[i]);
        hlsnap_snapshot *s;
        const hlsnap_result r = hlsnap_oci_load(DIR_NAME, tags[i], NULL, &s, NULL, &err);
        if (c && !CHECK_EQ(r, HLSNAP_OK)) printf("#   %s\n", err.msg);
        if (!c && !CHECK_EQ(r, HLSNAP_ERR_NOT_FOUND)) printf("#   %s\n", err.msg);
        if (c && s) check_same(content(*c), s);
        hlsnap_snapshot_release(s);
    }
}

static const hlsnap_oci_desc *timeless(void) { /* an index that is the same whenever it is written */
    static hlsnap_oci_desc desc;
    desc.created = -1;
    return &desc;
}

static void save_tags(const char *dir, const char *spec) { /* in a child, since a save may note what it stored */
    int status = 1;
    pid_t pid;
    fflush(stdout);
    pid = fork();
    if (pid == 0) {
        for (; spec && *spec; spec += strcspn(spec, " "), spec += *spec == ' ') {
            char tag[20];
            snprintf(tag, sizeof(tag), "%.*s", (int)strcspn(spec, "="), spec);
            if (hlsnap_oci_save(dir, tag, content(spec[strlen(tag) + 1]), timeless(), NULL, &err)) _exit(1);
        }
        _exit(0);
    }
    CHECK(waitpid(pid, &status, 0) == pid && status == 0);
}

static void reset(const op *o) {
    size_t i;
    if (o->enter) {
        for (i = 2; i < HLSNAP_COUNT(contents); i++) {
            hlsnap_snapshot_release(contents[i]);
            contents[i] = NULL;
        }
    }
    rm_rf(DIR_NAME);
    if (o->before) nftw(TEMPLATE, copy_one, 16, FTW_PHYS);
    if (o->enter) o->enter();
}

/* Makes the template, the state before, the state after, and the list of calls. False when nothing can be traced. */
static bool learn(const op *o) {
    const point none = {NOTHING, 0, 0};
    rm_rf(TEMPLATE);
    if (o->before) CHECK_EQ(mkdir(TEMPLATE, 0700), 0);
    if (o->prepare) o->prepare(o, TEMPLATE);
    else if (o->before) save_tags(TEMPLATE, o->before);
    reset(o);
    tree_read(&tree_before, DIR_NAME);
    CHECK((o->flags & DAMAGED) || tree_sums_right(&tree_before));
    if (!(o->flags & DAMAGED)) check_tags(o->before);
    if (!trace(&reference, o, none)) return false;
    CHECK(WIFEXITED(reference.status) && told->done && !told->bad);
    if (!CHECK_EQ(told->r, HLSNAP_OK)) printf("#   %s\n", told->msg);
    tree_read(&tree_after, DIR_NAME);
    CHECK(tree_sums_right(&tree_after));
    check_tags(o->after);
    CHECK_EQ(tree_same(&tree_before, &tree_after), (o->flags & SAME) != 0);
    CHECK(!tree_has_temps(&tree_after));
    if (test_bad) tree_show("before", &tree_before, NULL), tree_show("after", &tree_after, NULL);
    return true;
}

static bool same_index(const tree *a, const tree *b) {
    const entry *e = tree_find(a, "index.json");
    return e ? tree_has(b, e) : !tree_find(b, "index.json");
}

/* Appends a file's text. */
static void text_of(char *to, size_t cap, const char *path) {
    char full[200];
    ssize_t n;
    int fd;
    snprintf(full, sizeof(full), DIR_NAME "/%s", path);
    fd = open(full, O_RDONLY | O_CLOEXEC);
    n = read(fd, to + strlen(to), cap - strlen(to) - 1);
    CHECK(fd >= 0 && n >= 0 && (size_t)n < cap - strlen(to) - 1);
    close(fd);
}

/* The new state, stored in another way: what was there is, the tags are right, and each new blob is mentioned somewhere. */
static void check_other(const op *o, const tree *now) {
    static char text[100000];
    int i;
    memset(text, 0, sizeof(text));
    CHECK(tree_sums_right(now) && !tree_has_temps(now));
    for (i = 0; i < tree_before.num; i++)
        CHECK(strcmp(tree_before.e[i].path, "index.json") == 0 || tree_has(now, &tree_before.e[i]));
    for (i = 0; i < now->num; i++)
        if (S_ISREG(now->e[i].mode) && now->e[i].size < 10000) text_of(text, sizeof(text), now->e[i].path);
    for (i = 0; i < now->num; i++)
        if (!tree_has(&tree_before, &now->e[i]) && !strncmp(now->e[i].path, "blobs/sha256/", 13))
            CHECK(strstr(text, now->e[i].path + 13) != NULL);
    check_tags(o->after);
}

/* Whatever happened at whatever point: the old state or the new one, complete, and nothing that is neither's. */
static void check_sound(const op *o, const tree *now) {
    const bool old = same_index(now, &tree_before), new = same_index(now, &tree_after);
    tree without;
    int i;
    if (!old && !new && o->flags & OTHER) {
        check_other(o, now);
        return;
    }
    CHECK(old || new);
    for (i = 0; i < now->num; i++) {
        const entry *e = &now->e[i];
        const bool damaged = (o->flags & DAMAGED) != 0;
        if (!is_temp(e->path) && !CHECK(tree_has(&tree_before, e) || tree_has(&tree_after, e))) printf("#   stray %s\n", e->path);
        if (is_temp(e->path)) continue;
        without.num = 1;
        without.e[0] = *e;
        CHECK(tree_sums_right(&without) || (damaged && tree_has(&tree_before, e)));
    }
    for (i = 0; i < tree_before.num; i++) /* what both need, and what its own state needs */
        if (tree_has(&tree_after, &tree_before.e[i])) CHECK(tree_has(now, &tree_before.e[i]));
    if (old && !new) CHECK(o->flags & DAMAGED ? tree_part_by_name(&tree_before, now) : tree_part(&tree_before, now));
    if (new && !old) CHECK(tree_part(&tree_after, now));
    if (!(o->flags & DAMAGED)) check_tags(new ? o->after : o->before);
}

/* The operation works on what was left, and ends where it always does. */
static void check_again(const op *o, bool new) {
    static tree now, without;
    const hlsnap_result r = again(o);
    const bool gone = o->flags & ONCE && new && r == HLSNAP_ERR_NOT_FOUND;
    if (!CHECK(r == HLSNAP_OK || gone)) printf("#   again: %s\n", told->msg);
    tree_read(&now, DIR_NAME);
    if (o->flags & CLEANS) CHECK(!tree_has_temps(&now));
    tree_without_temps(&without, &now);
    if (!CHECK(tree_same(&without, &tree_after))) {
        tree_show("again, and not after", &without, &tree_after);
        tree_show("after, and not again", &tree_after, &without);
    }
}

/* ---- the loops ---- */

static const char *const kinds[] = {"nothing", "killed after",  "torn and killed in", "short",
                                    "failing", "failing from", "failing each", "waiting after"};

static int all_points, different, said; /* states that kills left; failures that the operation reported */

static void say(const op *o, point p, const tree *now) {
    const call *c = p.at && p.at <= reference.num ? &reference.calls[p.at - 1] : NULL;
    printf("# %s: %s call %d (%s), errno %d: %s %s\n", o->name, kinds[p.kind], p.at, c ? call_name(c->nr) : "none", p.number,
           told->done ? hlsnap_result_name(told->r) : "killed", told->msg);
    tree_show("gone", &tree_before, now);
    tree_show("came", now, &tree_before);
}

/* One point at which the child is killed; false when the operation was over before. What is the same, name by name and bit by
   bit, as at the point before has been checked there. */
static bool killed_at(const op *o, point p) {
    static tree now, last;
    const int bad = test_bad;
    if (p.at == 0) last.num = -1;
    trace(&now_traced, o, p);
    if (!now_traced.killed) {
        CHECK(told->done && !told->bad && told->r == HLSNAP_OK);
        reset(o);
        return false;
    }
    CHECK(WIFSIGNALED(now_traced.status) && WTERMSIG(now_traced.status) == SIGKILL);
    tree_read(&now, DIR_NAME);
    if (!tree_same(&now, &last)) {
        check_sound(o, &now);
        check_again(o, same_index(&now, &tree_after));
        different++;
    }
    last = now;
    if (test_bad > bad) say(o, p, &now);
    reset(o);
    return true;
}

static bool tree_has_ino(const tree *t, ino_t ino) {
    int i;
    for (i = 0; i < t->num; i++)
        if (t->e[i].ino == ino) return true;
    return false;
}

/* An operation that failed left nothing, unless it was the sync after the last step; one that did not fail did all, and what
   could not be synced is not part of it. */
static void check_failed(const op *o, point p, const tree *now) {
    const long nr = reference.calls[p.at - 1].nr;
    const bool last = nr == SYS_fsync || nr == SYS_openat; /* the open of the layout's parent, for its fsync */
    tree without;
    if (p.kind == SHORT) CHECK_EQ(told->r, HLSNAP_OK);
    if (told->r) {
        CHECK(told->r == HLSNAP_ERR_OS || told->r == HLSNAP_ERR_MEMORY);
        if (o->flags & PARTIAL || (o->flags & DAMAGED && now->num == tree_before.num)) check_sound(o, now);
        else CHECK(tree_same(now, &tree_before) || (last && tree_same(now, &tree_after)));
    } else if (o->flags & OTHER && !same_index(now, &tree_after)) {
        check_other(o, now);
    } else {
        tree_without_temps(&without, now);
        CHECK(tree_same(&without, &tree_after));
        CHECK(without.num == now->num || nr == SYS_unlinkat || nr == SYS_unlink || nr == SYS_rmdir);
        if (now_traced.unsynced.st_ino)
            CHECK(!S_ISDIR(now_traced.unsynced.st_mode) && !tree_has_ino(now, now_traced.unsynced.st_ino));
    }
}

static bool failed_at(const op *o, point p) {
    static tree now;
    const int bad = test_bad;
    trace(&now_traced, o, p);
    CHECK(WIFEXITED(now_traced.status) && WEXITSTATUS(now_traced.status) == 0 && !now_traced.killed);
    CHECK(told->done && !told->bad);
    if (p.kind == FAIL || p.kind == SHORT) CHECK(now_traced.calls[p.at - 1].nr == reference.calls[p.at - 1].nr);
    tree_read(&now, DIR_NAME);
    said += told->r != HLSNAP_OK;
    if (p.kind == FROM || p.kind == EVERY) check_sound(o, &now);
    else check_failed(o, p, &now);
    if (test_bad > bad) say(o, p, &now);
    if (!tree_same(&now, &tree_before)) {
        const bool many = p.kind == FROM || p.kind == EVERY;
        if (!(o->flags & OTHER) && (told->r || many)) check_again(o, same_index(&now, &tree_after));
        reset(o);
    }
    return now_traced.hit;
}



static int kill_loop(const op *o, int step) {
    point p = {KILL, 0, 0};
    int points = 0;
    for (; test_bad < 5 && (o->flags & THREADS || p.at <= reference.num); p.at += step) {
        if (!killed_at(o, p)) break;
        points++;
    }
    for (p.kind = TORN, p.at = 1; test_bad < 5 && !(o->flags & THREADS) && p.at <= reference.num; p.at++)
        if (call_writes(&reference.calls[p.at - 1])) points += killed_at(o, p);
    return points;
}

static int fail_loop(const op *o, int step) {
    static const point each[] = {{FAIL, 0, EIO},    {FAIL, 0, ENOSPC}, {FAIL, 0, EINTR}, {FAIL, 0, EMFILE},
                                 {FAIL, 0, ENOMEM}, {SHORT, 0, 0},     {FROM, 0, EIO},   {EVERY, 0, EIO}};
    int points = 0;
    size_t i;
    for (i = 0; i < HLSNAP_COUNT(each); i++) {
        point p = each[i];
        for (p.at = 1; test_bad < 5 && p.at <= reference.num; p.at += step) {
            const call *c = &reference.calls[p.at - 1];
            if (p.kind == EVERY && (p.at == 1 || p.at > reference.num / 2)) continue; /* FROM the first; FAIL, once */
            if (p.kind == SHORT ? !call_shortens(c) : p.kind == FAIL && !call_can_fail(c, p.number)) continue;
            points += failed_at(o, p);
        }
    }
    return points;
}

static void loop(const op *o) {
    const int step = getenv("QUICK") || SANITIZED ? 7 : 1; /* each fork of a sanitized process takes 20 ms */
    int killed, failed = 0;
    contents_make();
    if (!learn(o)) {
        contents_release();
        SKIP("ptrace is not permitted here");
    }
    reset(o);
    different = said = 0;
    killed = kill_loop(o, step);
    if (!(o->flags & THREADS)) failed = fail_loop(o, step);
    printf("# %s: %d points killed (%d states), %d points failed (%d said so), of %d calls\n", o->name, killed, different,
           failed, said, reference.num);
    if (step == 1) CHECK(killed >= o->min_killed && failed >= o->min_failed);
    CHECK(killed > 0 && different >= (o->flags & SAME || step > 1 ? 1 : 2));
    CHECK((failed > 0 && said > 0) || o->flags & THREADS);
    all_points += killed + failed;
    contents_release();
    CHECK_EQ(alloc_live, 0);
    rm_rf(DIR_NAME);
    rm_rf(TEMPLATE);
    rm_rf("source");
}

/* ---- the operations ---- */

static void foreign(const op *o, const char *dir) { /* what other tools keep in a layout */
    static const char blob[] = "not ours\n";
    uint8_t sum[32];
    char path[200];
    int i, n;
    snprintf(path, sizeof(path), "%s/blobs", dir);
    CHECK_EQ(mkdir(path, 0755), 0);
    snprintf(path, sizeof(path), "%s/blobs/sha256", dir);
    CHECK_EQ(mkdir(path, 0755), 0);
    SHA256((const uint8_t *)blob, sizeof(blob) - 1, sum);
    n = sprintf(path, "blobs/sha256/");
    for (i = 0; i < 32; i++) n += sprintf(path + n, "%02x", sum[i]);
    put(dir, path, blob);
    put(dir, "note", "x\n");
    put(dir, "oci-layout", "{ \"imageLayoutVersion\" : \"1.0.0\" }\n");
    put(dir, "index.json",
        "{ \"schemaVersion\":2, \"manifests\" : [ { \"mediaType\":\"application/vnd.oci.image.index.v1+json\", \"size\":9 ,\n"
        " \"digest\":\"sha512:ab\", \"annotations\":{\"org.opencontainers.image.ref.name\":\"other/tag:1\"}} ], \"z\":1 }\n");
    save_tags(dir, o->before);
}

static int damage_one(const char *path, const struct stat *st, int type, struct FTW *ftw) {
    const int fd = strstr(path, "/sha256/") && S_ISREG(st->st_mode) ? open(path, O_WRONLY | O_CLOEXEC) : -1;
    (void)type, (void)ftw;
    if (fd < 0) return 0;
    CHECK_EQ(pwrite(fd, "?", 1, st->st_size / 2), 1);
    return close(fd);
}

static void damaged(const op *o, const char *dir) { /* no blob is what its name says */
    save_tags(dir, o->before);
    nftw(dir, damage_one, 16, FTW_PHYS);
}

static void enter_loaded(void) { /* C: what v1 is, loaded from the layout; D: C and a layer on top */
    CHECK_EQ(hlsnap_oci_load(DIR_NAME, "v1", NULL, &contents[2], NULL, &err), HLSNAP_OK);
    contents[3] = small_next(contents[2], 5);
}

/* v1, and a snapshot over it, which finds v1's layer in the layout. */
static void layered(const op *o, const char *dir) {
    int status = 1;
    pid_t pid;
    (void)o;
    save_tags(dir, "v1=A");
    fflush(stdout);
    pid = fork();
    if (pid == 0) {
        hlsnap_snapshot *s, *t;
        if (hlsnap_oci_load(dir, "v1", NULL, &s, NULL, &err)) _exit(1);
        t = small_next(s, 5);
        _exit(hlsnap_oci_save(dir, "v2", t, timeless(), NULL, &err) ? 1 : 0);
    }
    CHECK(waitpid(pid, &status, 0) == pid && status == 0);
}

/* One with maps: a captured one of five pages, two of which were changed, one of those behind another, and one of the host's. */
static hlsnap_snapshot *mapped_new(uint64_t seed, uint64_t map_seed) {
    static const hlsnap__extent e[] = {{0, 4, 0, 0}, {20, 6, 0, 4}, {1024, 1, 1, 0}, {1025, 1, 0, 10}, {1026, 2, 1, 2}, {1536, 1, 0, 11}};
    static const hlsnap__map of[] = {{"captured", "", HLSNAP_MAP_PRIVATE, true, false, 0x7f0000000000ull, 5 * P - 9, NULL},
                                     {"host", "", HLSNAP_MAP_PRIVATE, false, true, 0x7f0000200000ull, 3 * P, NULL}};
    hlsnap_snapshot *s = snapshot_over(guest_new(), layer_new(12, seed, 99), layer_new(5, map_seed, 99), e, HLSNAP_COUNT(e));
    CHECK_EQ(hlsnap__snapshot_maps(s, of, HLSNAP_COUNT(of), &err), HLSNAP_OK);
    CHECK(s->maps[0].layer == s->layers[1]);
    return s;
}
static void enter_mapped(void) { /* C and D: the same captured map */
    hlsnap_snapshot_release(contents[2]);
    hlsnap_snapshot_release(contents[3]);
    contents[2] = mapped_new(11, 12);
    contents[3] = mapped_new(13, 12);
}
static void mapped(const op *o, const char *dir) {
    enter_mapped();
    save_tags(dir, o->before);
}

static hlsnap_result run_gc(const op *o) {
    uint64_t freed = 0;
    const hlsnap_result r = hlsnap_oci_gc(DIR_NAME, 0, &freed, &err);
    (void)o;
    return r;
}
static hlsnap_result run_fsck(const op *o) { return hlsnap_oci_fsck(DIR_NAME, o->flags & CLEANS, &err); }
static hlsnap_result run_tag(const op *o) { return hlsnap_oci_tag(DIR_NAME, "v1", o->tag, &err); }
static hlsnap_result run_untag(const op *o) { return hlsnap_oci_untag(DIR_NAME, o->tag, &err); }
static hlsnap_result run_flatten(const op *o) { return hlsnap_oci_flatten(DIR_NAME, "v2", o->tag, timeless(), NULL, &err); }

static bool visit(const char *tag, const hlsnap_oci_digest *digest, uint64_t bytes, void *user) {
    CHECK(strlen(tag) <= 4 && strlen(digest->text) == 71);
    *(uint64_t *)user += bytes;
    return true;
}
static hlsnap_result run_list(const op *o) {
    uint64_t bytes = 0;
    (void)o;
    return hlsnap_oci_list(DIR_NAME, visit, &bytes, &err);
}
static hlsnap_result run_info(const op *o) {
    hlsnap_oci_info info;
    const hlsnap_result r = hlsnap_oci_get_info(DIR_NAME, o->tag, &info, &err);
    CHECK(r || (info.own_bytes < info.bytes && info.layers == 2));
    return r;
}

static void garbage(const op *o, const char *dir) { /* a blob that nothing leads to, and what a killed save left */
    char path[200];
    save_tags(dir, o->before);
    put(dir, "blobs/sha256/2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881", "x");
    put(dir, ".hlsnap-1-2.tmp", "{}");
    snprintf(path, sizeof(path), "%s/.hlsnap-tmp", dir);
    CHECK_EQ(mkdir(path, 0700), 0);
    put(dir, ".hlsnap-tmp/.hlsnap-3-4.tmp", "x");
}

static void replaced(const op *o, const char *dir) { /* the layered one has lost its tag */
    layered(o, dir);
    save_tags(dir, "v2=B");
}

static void beside(const op *o, const char *dir) { /* another layout, to copy from */
    rm_rf("source");
    save_tags("source", "s=A");
    if (o->before) save_tags(dir, o->before);
}
static void beside_damaged(const op *o, const char *dir) {
    beside(o, dir);
    nftw(dir, damage_one, 16, FTW_PHYS);
}
static hlsnap_result run_copy(const op *o) { return hlsnap_oci_copy("source", "s", DIR_NAME, o->tag, NULL, NULL, &err); }

static const op ops[] = {
    {"save into no directory", NULL, "v1=A", run_save, "v1", 'A', NULL, NULL, 0, 69, 259},
    {"save into an empty directory", "", "v1=A", run_save, "v1", 'A', NULL, NULL, 0, 69, 256},
    {"save of a new tag", "v1=A", "v1=A v2=B", run_save, "v2", 'B', NULL, NULL, 0, 77, 288},
    {"save that moves a tag", "v1=A keep=A", "v1=B keep=A", run_save, "v1", 'B', NULL, NULL, 0, 77, 288},
    {"save of what is there", "v1=A", "v1=A", run_save, "v1", 'A', NULL, NULL, SAME, 84, 307},
    {"save among foreign entries", "v1=A", "v1=B", run_save, "v1", 'B', foreign, NULL, 0, 77, 288},
    {"save of what was loaded", "v1=A", "v1=A v2=C", run_save, "v2", 'C', NULL, enter_loaded, 0, 75, 276},
    {"save over what was loaded", "v1=A", "v1=A v2=D", run_save, "v2", 'D', NULL, enter_loaded, OTHER, 88, 330},
    {"save that heals", "v1=A", "v1=A v2=A", run_save, "v2", 'A', damaged, NULL, DAMAGED, 103, 384},
    {"save that heals, without O_TMPFILE", "v1=A", "v1=A", run_save, "v1", 'A', damaged, NULL, DAMAGED | NO_TMPFILE, 108, 408},
    {"save without O_TMPFILE", "v1=A", "v1=B", run_save, "v1", 'B', NULL, NULL, NO_TMPFILE, 88, 338},
    {"save into no directory without O_TMPFILE", NULL, "v1=A", run_save, "v1", 'A', NULL, NULL, NO_TMPFILE, 81, 313},
    {"save without openat2", "v1=A", "v1=B", run_save, "v1", 'B', NULL, NULL, NO_OPENAT2, 80, 305},
    {"save with threads", "v1=A", "v1=A v2=B", run_save, "v2", 'B', NULL, NULL, THREADS, 73, 0},
    {"load", "v1=A keep=B", "v1=A keep=B", run_load, "v1", 'A', NULL, NULL, SAME, 32, 115},
    {"load unguarded", "v1=A", "v1=A", run_load_file, "v1", 'A', NULL, NULL, SAME, 24, 89},
    {"load without openat2", "v1=A", "v1=A", run_load, "v1", 'A', NULL, NULL, SAME | NO_OPENAT2, 50, 186},
    {"load of two layers", "v1=A v2=D", "v1=A v2=D", run_load, "v2", 'D', layered, enter_loaded, SAME, 45, 161},
    {"load twice by a cache", "v1=A v2=D", "v1=A v2=D", run_load_cached, "v2", 'D', layered, enter_loaded, SAME, 73, 263},
    {"save of a captured map", "v1=A", "v1=A v2=C", run_save, "v2", 'C', mapped, enter_mapped, OTHER, 160, 580},
    {"save of a captured map that is there", "v1=C", "v1=C v2=D", run_save, "v2", 'D', mapped, enter_mapped, OTHER, 170, 640},
    {"save of a captured map without O_TMPFILE", "v1=A", "v1=C", run_save, "v1", 'C', mapped, enter_mapped, NO_TMPFILE | OTHER, 170, 650},
    {"load of maps", "v1=C keep=D", "v1=C keep=D", run_load, "v1", 'C', mapped, enter_mapped, SAME, 100, 370},
    {"resolve", "v1=A", "v1=A", run_resolve, "v1", 0, NULL, NULL, SAME, 8, 25},
    {"list", "v1=A v2=D", "v1=A v2=D", run_list, NULL, 0, layered, enter_loaded, SAME, 18, 64},
    {"info", "v1=A v2=D", "v1=A v2=D", run_info, "v2", 0, layered, enter_loaded, SAME, 26, 93},
    {"tag", "v1=A", "v1=A v2=A", run_tag, "v2", 0, NULL, NULL, 0, 38, 138},
    {"tag that moves", "v1=A v2=B", "v1=A v2=A", run_tag, "v2", 0, NULL, NULL, 0, 38, 138},
    {"untag", "v1=A v2=B", "v1=A", run_untag, "v2", 0, NULL, NULL, ONCE, 34, 123},
    {"flatten in place", "v1=A v2=D", "v1=A v2=D", run_flatten, "v2", 0, layered, enter_loaded, 0, 124, 453},
    {"copy into no directory", NULL, "v1=A", run_copy, "v1", 'A', beside, NULL, 0, 165, 620},
    {"copy that moves a tag", "v1=B keep=B", "v1=A keep=B", run_copy, "v1", 'A', beside, NULL, 0, 165, 620},
    {"copy of what is there", "v2=A", "v1=A v2=A", run_copy, "v1", 'A', beside, NULL, 0, 140, 510},
    {"copy that heals", "v1=A", "v1=A", run_copy, "v1", 'A', beside_damaged, NULL, DAMAGED, 250, 920},
    {"copy without O_TMPFILE", "v1=B", "v1=A", run_copy, "v1", 'A', beside, NULL, NO_TMPFILE, 200, 750},
    {"gc", "v1=A keep=B", "v1=A keep=B", run_gc, NULL, 0, garbage, NULL, PARTIAL | CLEANS, 58, 207},
    {"gc of what lost its tag", "v1=A v2=B", "v1=A v2=B", run_gc, NULL, 0, replaced, NULL, PARTIAL | CLEANS, 66, 240},
    {"fsck", "v1=A v2=D", "v1=A v2=D", run_fsck, NULL, 0, layered, enter_loaded, SAME, 69, 252},
    {"fsck that repairs", "v1=A keep=B", "v1=A keep=B", run_fsck, NULL, 0, garbage, NULL, PARTIAL | CLEANS, 96, 346},
};

static const op *row_next[HLSNAP_COUNT(ops)];
static int rows_done;
static void row(void) { loop(row_next[rows_done++]); }

/* ---- two at once over an index that is lost, in a layout without a lock file: whatever the first one has done, and whether it
   goes on or is killed there, nobody begins a new index, which would make garbage of what lies there ---- */

static hlsnap_result run_second(const op *o) { /* waits for no lock that the first one holds */
    hlsnap_oci_desc d = HLSNAP_ZERO;
    d.created = -1;
    d.wait_ns = 1;
    return o->tag ? hlsnap_oci_save(DIR_NAME, o->tag, content(o->content), &d, NULL, &err) : hlsnap_oci_gc_with(DIR_NAME, 0, &d, NULL, &err);
}
static const op over_lost = {"save over a lost index", "v1=A v2=B", NULL, run_save, "v3", 'A', NULL, NULL, 0, 0, 0},
                over_lost_named = {"the same without O_TMPFILE", "v1=A v2=B", NULL, run_save, "v3", 'A', NULL, NULL, NO_TMPFILE, 0, 0},
                second_save = {"second save", NULL, NULL, run_second, "v4", 'B', NULL, NULL, 0, 0, 0},
                second_gc = {"second gc", NULL, NULL, run_second, NULL, 0, NULL, NULL, 0, 0, 0};
static int waited;                 /* seconds that found a lock taken */

static void second(void) {
    const op *const ops_of[] = {&second_save, &second_gc};
    size_t i;
    for (i = 0; i < HLSNAP_COUNT(ops_of); i++) {
        const hlsnap_result r = again(ops_of[i]);
        const bool locked = r == HLSNAP_ERR_OS && told->os_errno == EAGAIN;
        waited += locked;
        if (!CHECK(locked || (r == HLSNAP_ERR_FILE && strstr(told->msg, "lost")))) printf("# %s: %d: %s\n", ops_of[i]->name, r, told->msg);
    }
    CHECK(access(DIR_NAME "/index.json", F_OK) != 0);
}

static void over_lost_loop(const op *o) {
    static const kind both[] = {BESIDE, KILL};
    const int step = getenv("QUICK") || SANITIZED ? 7 : 1;
    tree blobs, now;
    size_t i;
    point p;
    int points = 0;
    rm_rf(TEMPLATE);
    CHECK_EQ(mkdir(TEMPLATE, 0700), 0);
    save_tags(TEMPLATE, o->before);
    CHECK(unlink(TEMPLATE "/index.json") == 0 && unlink(TEMPLATE "/.hlsnap.lock") == 0);
    tree_read(&blobs, TEMPLATE);
    beside_it = second;
    for (i = 0; i < HLSNAP_COUNT(both); i++)
        for (p.kind = both[i], p.at = 1, p.number = 0; test_bad < 5; p.at += step, points++) {
            int k;
            reset(o);
            if (!trace(&now_traced, o, p)) SKIP("ptrace is not permitted here");
            if (!now_traced.killed) break;
            if (p.kind == BESIDE && !CHECK(told->r == HLSNAP_ERR_FILE && strstr(told->msg, "lost"))) printf("# first: %s\n", told->msg);
            second();
            tree_read(&now, DIR_NAME);
            for (k = 0; k < blobs.num; k++)
                if (strstr(blobs.e[k].path, "blobs/sha256/")) CHECK(tree_has(&now, &blobs.e[k]));
            if (test_bad) printf("# at %s %s %d\n", o->name, kinds[p.kind], p.at);
        }
    printf("# %s: %d points, of %d calls; %d found it locked\n", o->name, points, now_traced.num, waited);
    CHECK(points >= 120 / step);
    all_points += points;
}

static void lost_index(void) {
    contents_make();
    over_lost_loop(&over_lost);
    over_lost_loop(&over_lost_named);
    contents_release();
    rm_rf(DIR_NAME);
    rm_rf(TEMPLATE);
}

/* A directory to work in: where it is asked for, or in memory, when that can do what a disk can. */
static bool home_make(void) {
    const char *tmp = getenv("TMPDIR"), *places[3];
    size_t i;
    places[0] = tmp ? tmp : "/dev/shm";
    places[1] = "/dev/shm";
    places[2] = "/tmp";
    for (i = 0; i < HLSNAP_COUNT(places); i++) {
        int fd;
        snprintf(home, sizeof(home), "%.150s/hlsnap-crash-XXXXXX", places[i]);
        if (!mkdtemp(home)) continue;
        fd = open(home, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
        if (fd >= 0) close(fd);
        if (fd >= 0 && chdir(home) == 0) return true;
        rmdir(home);
    }
    return false;
}

int main(int argc, char **argv) {
    test_row rows[HLSNAP_COUNT(ops) + 1];
    cJSON_Hooks hooks;
    cpu_set_t cpu;
    size_t i, n = 0;
    int r;
    hooks.malloc_fn = t_malloc;
    hooks.free_fn = t_free;
    cJSON_InitHooks(&hooks);
    CPU_ZERO(&cpu); /* on one CPU, tracer and child need not wake each other */
    CPU_SET((size_t)sched_getcpu(), &cpu);
    sched_setaffinity(0, sizeof(cpu), &cpu);
    told = (report *)mmap(NULL, sizeof(*told), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (told == MAP_FAILED || !home_make()) return 1;
    base_fds = fds_open();
    for (i = 0; i < HLSNAP_COUNT(ops); i++) {
        if (argc > 1 && !strstr(ops[i].name, argv[1])) continue;
        row_next[n] = &ops[i];
        rows[n].name = ops[i].name;
        rows[n++].run = row;
    }
    if (argc < 2 || strstr(over_lost.name, argv[1])) {
        rows[n].name = over_lost.name;
        rows[n++].run = lost_index;
    }
    r = test_main(rows, n, 1, argv);
    printf("# %d points, in %s\n", all_points, home);
    if (chdir("/") == 0) rm_rf(home);
    return r;
}

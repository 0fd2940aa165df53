/* test_shared.c - a layout that several people and programs use: owners, permissions, ACLs; file systems that lack something;
   writers that wait for each other; what cannot be removed.
   cc:  cc -std=gnu11 -I.. test_shared.c -lcjson -o test_shared
   run: ./test_shared [name]      works in a directory of its own under $TMPDIR or /tmp; as root, or much is skipped */
#define _GNU_SOURCE 1
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <grp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>
#include "test.h"

/* ---- file systems that lack something: system calls through macros that hlsnap sees ---- */

static bool no_tmpfile, no_locks, locks_lie;
static int no_modes; /* errno of fchmod; 0: there are permissions */
static int no_links, no_sync, no_file_sync; /* errno of link, of the fsync of a directory, of a file; 0: there are such things */

static const char *vanish;     /* a name that is not there, this many times, with that errno */
static int vanish_times, vanish_errno;
static bool vanish_opens;      /* only when it is opened */
static uint64_t slept;         /* ns that were to be slept */

static bool vanished(const char *p) {
    if (!vanish || !vanish_times || strcmp(p, vanish) != 0) return false;
    vanish_times--;
    errno = vanish_errno;
    return true;
}
static int t_nanosleep(const struct timespec *t, struct timespec *left) {
    const struct timespec less = {0, t->tv_nsec / 16};
    slept += (uint64_t)t->tv_sec * 1000000000u + (uint64_t)t->tv_nsec;
    return nanosleep(&less, left);
}
static int t_fstatat(int at, const char *p, struct stat *st, int flags) {
    return !vanish_opens && vanished(p) ? -1 : fstatat(at, p, st, flags);
}
static long t_syscall(long n, long a, long b, long c, long d, long e) {
    return n == SYS_openat2 && vanished((const char *)b) ? -1 : syscall(n, a, b, c, d, e);
}
static int t_openat(int at, const char *p, int flags, mode_t mode) {
    if (no_tmpfile && (flags & O_TMPFILE) == O_TMPFILE) return errno = EOPNOTSUPP, -1;
    return openat(at, p, flags, mode);
}
static int t_linkat(int a, const char *p, int b, const char *q, int f) {
    return no_links ? errno = no_links, -1 : linkat(a, p, b, q, f);
}
static char stuck[2][70];      /* names that cannot be removed */
static int stuck_errno;
static int t_unlinkat(int at, const char *p, int flags) {
    return stuck_errno && (!strcmp(p, stuck[0]) || !strcmp(p, stuck[1])) ? errno = stuck_errno, -1 : unlinkat(at, p, flags);
}
static int t_fsync(int fd) {
    struct stat st;
    const int fails = fstat(fd, &st) == 0 && S_ISDIR(st.st_mode) ? no_sync : no_file_sync;
    return fails ? errno = fails, -1 : fsync(fd);
}
static int t_fchmod(int fd, mode_t mode) { return no_modes ? errno = no_modes, -1 : fchmod(fd, mode); }
static const char *snatched;   /* a lock file that is removed whenever a lock of it was got, so many times; moved away, not removed */
static int snatch_times;
static bool snatch_moves;
static int t_fcntl(int fd, int command, long arg) {
    if (snatched && snatch_times && (command == F_OFD_SETLK || command == F_OFD_SETLKW) && ((struct flock *)arg)->l_type != F_UNLCK &&
        ((struct flock *)arg)->l_start != 2) { /* but the turn */
        const int r = fcntl(fd, command, arg);
        if (r == 0 && (snatch_moves ? rename(snatched, "moved") : unlink(snatched)) == 0) snatch_times--;
        return r;
    }
    if (locks_lie && (command == F_OFD_SETLK || command == F_OFD_SETLKW)) return 0; /* as bindfs with lock forwarding */
    return no_locks && (command == F_OFD_SETLK || command == F_OFD_SETLKW) ? errno = EINVAL, -1 : fcntl(fd, command, arg);
}
#define openat(...) T_OPENAT(__VA_ARGS__, 0, 0)
#define T_OPENAT(at, p, flags, mode, ...) t_openat(at, p, flags, (mode_t)(mode))
#define T_ARG5(n, a, b, c, d, e, ...) t_syscall(n, (long)(a), (long)(b), (long)(c), (long)(d), (long)(e))
#define syscall(...) T_ARG5(__VA_ARGS__, 0, 0, 0, 0, 0, 0)
#define nanosleep t_nanosleep
#define fstatat t_fstatat
#define linkat t_linkat
#define unlinkat t_unlinkat
#define fsync t_fsync
#define fchmod t_fchmod
#define fcntl(fd, command, arg) t_fcntl(fd, command, (long)(arg))
#define HLSNAP_IMPLEMENTATION
#include "hlsnap_oci.h"
#undef openat
#undef syscall
#undef nanosleep
#undef fstatat
#undef linkat
#undef unlinkat
#undef fsync
#undef fchmod
#undef fcntl
#include "oci_make.h"

/* ---- helpers ---- */

static char home[200];
static hlsnap_error err;

static const char *fresh(void) { /* a new directory's name */
    static char dir[4][20];
    static int n;
    char *d = dir[n % 4];
    snprintf(d, sizeof(dir[0]), "d%d", n++ % 1000);
    return d;
}

/* ---- people: what a call comes to when it is made by somebody else ---- */

#define TEAM 12500
typedef struct act { /* one call; made by a user of the team */
    const char *name, *dir, *ref, *tag;
    uint32_t mode;
    bool stops; /* as soon as bytes are moved */
} act;

static bool stop(uint64_t done, uint64_t total, void *user) { return (void)done, (void)total, (void)user, false; }
static hlsnap_result act_do(const act *a) {
    hlsnap_oci_desc d = HLSNAP_ZERO;
    hlsnap_snapshot *s = NULL;
    hlsnap_result r = HLSNAP_ERR_ARG;
    memset(&err, 0, sizeof(err));
    d.mode = a->mode;
    d.progress = a->stops ? stop : NULL;
    if (strcmp(a->name, "save") == 0) {
        const char *c;
        uint64_t seed = 1;
        for (c = a->tag; *c; c++) seed = seed * 31 + (uint8_t)*c; /* each tag has a content of its own */
        s = snapshot_small(seed);
        r = hlsnap_oci_save(a->dir, a->tag, s, &d, NULL, &err);
    }
    if (strcmp(a->name, "load") == 0) r = hlsnap_oci_load(a->dir, a->tag, NULL, &s, NULL, &err);
    if (strcmp(a->name, "tag") == 0) r = hlsnap_oci_tag(a->dir, a->ref, a->tag, &err);
    if (strcmp(a->name, "untag") == 0) r = hlsnap_oci_untag(a->dir, a->tag, &err);
    if (strcmp(a->name, "gc") == 0) r = hlsnap_oci_gc(a->dir, 0, NULL, &err);
    if (strcmp(a->name, "fsck") == 0) r = hlsnap_oci_fsck(a->dir, true, &err);
    hlsnap_snapshot_release(s);
    return r;
}

/* The same in a child that is this user of a group of its own, and of one more (0: none); err is filled as there. */
static hlsnap_result as(uid_t uid, gid_t group, act a) {
    int out[2], status = 0;
    hlsnap_result r = HLSNAP_ERR_ARG;
    pid_t pid;
    CHECK_EQ(pipe(out), 0);
    fflush(stdout);
    pid = fork();
    if (pid == 0) {
        if (setgroups(group ? 1 : 0, &group) || setresgid(uid, uid, uid) || setresuid(uid, uid, uid)) _exit(1);
        umask(077);
        r = act_do(&a);
        _exit(write(out[1], &r, sizeof(r)) != sizeof(r) || write(out[1], &err, sizeof(err)) != sizeof(err));
    }
    close(out[1]);
    CHECK(read(out[0], &r, sizeof(r)) == sizeof(r) && read(out[0], &err, sizeof(err)) == sizeof(err));
    close(out[0]);
    CHECK(waitpid(pid, &status, 0) == pid && status == 0);
    if (r) printf("# %s of %s by %u: %s\n", a.name, a.tag, (unsigned)uid, err.msg);
    return r;
}
static act save_of(const char *dir, const char *tag) { act a = {"save", dir, NULL, tag, 0, false}; return a; }
static act load_of(const char *dir, const char *tag) { act a = {"load", dir, NULL, tag, 0, false}; return a; }
static act tag_of(const char *dir, const char *ref, const char *tag) { act a = {"tag", dir, ref, tag, 0, false}; return a; }
static act untag_of(const char *dir, const char *tag) { act a = {"untag", dir, NULL, tag, 0, false}; return a; }
static act gc_of(const char *dir) { act a = {"gc", dir, NULL, "", 0, false}; return a; }
static act fsck_of(const char *dir) { act a = {"fsck", dir, NULL, "", 0, false}; return a; }

static struct {
    uid_t uid;
    gid_t gid;
    mode_t file, dir;
    int wrong, files;
} want;
static int want_one(const char *path, const struct stat *st, int type, struct FTW *ftw) {
    const mode_t mode = S_ISDIR(st->st_mode) ? want.dir : want.file;
    (void)type;
    want.files++;
    if ((want.uid == st->st_uid || want.uid == (uid_t)-1) && want.gid == st->st_gid && (st->st_mode & 0777) == mode) return 0;
    if (ftw->level == 0 && want.uid == (uid_t)-1) return 0; /* the directory itself */
    printf("# %s: %u:%u %o\n", path, (unsigned)st->st_uid, (unsigned)st->st_gid, (unsigned)st->st_mode);
    want.wrong++;
    return 0;
}
/* All that is in a layout has these owners and permissions; user -1: any. */
static void check_all(const char *dir, uid_t uid, gid_t gid, mode_t file, mode_t sub) {
    want.uid = uid, want.gid = gid, want.file = file, want.dir = sub;
    want.wrong = want.files = 0;
    nftw(dir, want_one, 16, FTW_PHYS);
    CHECK(want.files > 7);
    CHECK_EQ(want.wrong, 0);
}

static bool root_here(void) {
    if (geteuid() != 0) test_why = "not root";
    return geteuid() == 0;
}

/* ---- owners ---- */

static void root_takes_nothing(void) { /* what root writes in somebody's layout is that one's */
    const char *dir = fresh();
    if (!root_here()) return;
    CHECK(mkdir(dir, 0700) == 0 && chown(dir, 12001, 12002) == 0);
    CHECK_EQ(as(0, 0, save_of(dir, "first")), HLSNAP_OK); /* also the lock file, and what makes it a layout */
    check_all(dir, 12001, 12002, 0600, 0700);
    CHECK_EQ(as(12001, 0, load_of(dir, "first")), HLSNAP_OK);
    CHECK_EQ(as(12001, 0, save_of(dir, "v1")), HLSNAP_OK);
    CHECK_EQ(as(12001, 0, tag_of(dir, "v1", "old")), HLSNAP_OK);
    CHECK_EQ(sh("chown -R 12001:12001 %s && chmod 0640 %s/index.json && rm %s/.hlsnap.lock", dir, dir, dir), 0);
    CHECK_EQ(as(0, 0, tag_of(dir, "v1", "again")), HLSNAP_OK);
    CHECK_EQ(as(0, 0, save_of(dir, "v22")), HLSNAP_OK);
    CHECK_EQ(as(0, 0, untag_of(dir, "old")), HLSNAP_OK);
    CHECK_EQ(as(0, 0, untag_of(dir, "first")), HLSNAP_OK);
    CHECK_EQ(as(0, 0, gc_of(dir)), HLSNAP_OK);
    CHECK_EQ(as(0, 0, fsck_of(dir)), HLSNAP_OK);
    CHECK_EQ(sh("[ $(stat -c %%u:%%g:%%a %s/index.json) = 12001:12001:640 ] && chmod 0600 %s/index.json", dir, dir), 0);
    check_all(dir, 12001, 12001, 0600, 0700);
    CHECK_EQ(as(12001, 0, load_of(dir, "again")), HLSNAP_OK);
    CHECK_EQ(as(12001, 0, load_of(dir, "v22")), HLSNAP_OK);
    CHECK_EQ(as(12001, 0, save_of(dir, "v333")), HLSNAP_OK);
    CHECK_EQ(as(12001, 0, untag_of(dir, "v22")), HLSNAP_OK);
    CHECK_EQ(as(12001, 0, gc_of(dir)), HLSNAP_OK);
}

static void team_of(const char *dir, mode_t mode) { /* everything, by everybody, on top of what the others did */
    static const uid_t who[] = {12001, 12002, 0, 12002, 12001};
    size_t i;
    CHECK(mkdir(dir, 0700) == 0 && chown(dir, 12001, TEAM) == 0 && chmod(dir, mode) == 0);
    for (i = 0; i < HLSNAP_COUNT(who); i++) {
        CHECK_EQ(as(who[i], TEAM, save_of(dir, "v1")), HLSNAP_OK);
        CHECK_EQ(as(who[i], TEAM, save_of(dir, i % 2 ? "even" : "od")), HLSNAP_OK);
        CHECK_EQ(as(who[i], TEAM, tag_of(dir, "v1", "v2")), HLSNAP_OK);
        CHECK_EQ(as(who[i], TEAM, load_of(dir, "v2")), HLSNAP_OK);
        CHECK_EQ(as(who[i], TEAM, untag_of(dir, i % 2 ? "even" : "od")), HLSNAP_OK);
        CHECK_EQ(as(who[i], TEAM, gc_of(dir)), HLSNAP_OK);
        CHECK_EQ(as(who[i], TEAM, fsck_of(dir)), HLSNAP_OK);
        if (i == 0) CHECK_EQ(sh("rm %s/.hlsnap.lock", dir), 0);
    }
    check_all(dir, (uid_t)-1, TEAM, 0660, 0770);
    CHECK_EQ(sh("[ $(find %s -mindepth 1 -type d -perm -2000 | wc -l) = %d ]", dir, mode & 02000 ? 2 : 0), 0);
    CHECK(as(12003, 0, load_of(dir, "v1")) == HLSNAP_ERR_OS && err.os_errno == EACCES);
}
static void teams_share(void) {
    if (!root_here()) return;
    team_of(fresh(), 0770);
    team_of(fresh(), 02770);
}

/* An ACL of a user's, as the kernel has it: user, that user, group, mask, other. */
static uint16_t acl_mask = 7;
static void acl_set(const char *path, const char *name, uint32_t user, uint16_t may, uint16_t group) {
    struct { uint32_t version; struct { uint16_t tag, may; uint32_t who; } e[5]; } acl =
        {2, {{1, 6, ~0u}, {2, may, user}, {4, group, ~0u}, {16, acl_mask, ~0u}, {32, 0, ~0u}}};
    if (*name == 'd' || strlen(path) < 8) acl.e[0].may = 7;
    CHECK_EQ(setxattr(path, *name == 'd' ? "system.posix_acl_default" : "system.posix_acl_access", &acl, sizeof(acl), 0), 0);
}

static void acls_stay(void) {
    const char *dir = fresh();
    char path[100], before[100], after[100];
    ssize_t n;
    if (!root_here()) return;
    CHECK_EQ(as(0, 0, save_of(dir, "v1")), HLSNAP_OK);
    snprintf(path, sizeof(path), "%s/index.json", dir);
    if (getxattr(path, "system.posix_acl_access", before, 0) < 0 && errno == EOPNOTSUPP) SKIP("no ACLs on this file system");
    CHECK_EQ(sh("cd %s && chown -R 12001:12001 . && chmod 755 . blobs blobs/sha256 && chmod 644 oci-layout blobs/*/*", dir), 0);
    acl_set(path, "access", 12003, 4, 0);
    n = getxattr(path, "system.posix_acl_access", before, sizeof(before));
    CHECK_EQ(as(12003, 0, load_of(dir, "v1")), HLSNAP_OK);
    CHECK_EQ(as(0, 0, tag_of(dir, "v1", "x")), HLSNAP_OK);
    CHECK_EQ(as(12003, 0, load_of(dir, "x")), HLSNAP_OK);
    CHECK_EQ(as(12001, 0, tag_of(dir, "v1", "y")), HLSNAP_OK);
    CHECK_EQ(as(12003, 0, load_of(dir, "y")), HLSNAP_OK);
    CHECK(n > 0 && getxattr(path, "system.posix_acl_access", after, sizeof(after)) == n && memcmp(before, after, (size_t)n) == 0);
    CHECK_EQ(sh("[ $(stat -c %%u:%%g:%%a %s) = 12001:12001:670 ]", path), 0);
    /* the directory's default ACL gives what is made to that user, and an index without an ACL gets none */
    CHECK_EQ(removexattr(path, "system.posix_acl_access"), 0);
    CHECK_EQ(sh("chmod 604 %s", path), 0);
    acl_set(dir, "default", 12003, 7, 0);
    acl_set(dir, "access", 12003, 7, 0);
    snprintf(after, sizeof(after), "%s/blobs", dir);
    acl_set(after, "default", 12003, 7, 0);
    CHECK_EQ(sh("mv %s/blobs/sha256 %s/t && rm %s/.hlsnap.lock", dir, dir, dir), 0);
    CHECK_EQ(as(12001, 0, save_of(dir, "z")), HLSNAP_OK);
    CHECK_EQ(as(12003, 0, load_of(dir, "z")), HLSNAP_OK);
    CHECK(getxattr(path, "system.posix_acl_access", after, sizeof(after)) < 0 && errno == ENODATA);
    CHECK_EQ(sh("[ $(stat -c %%a %s) = 604 ]", path), 0);
}

static void masks_count(void) { /* what a mask takes away, nobody has */
    const char *dir = fresh(), *other = fresh();
    char none[8];
    if (!root_here()) return;
    CHECK(mkdir(dir, 0700) == 0 && mkdir(other, 0750) == 0);
    if (getxattr(dir, "system.posix_acl_access", none, 0) < 0 && errno == EOPNOTSUPP) SKIP("no ACLs on this file system");
    acl_mask = 5;
    acl_set(dir, "access", 12003, 5, 7); /* the group may not write into it: nothing is shared with it */
    CHECK_EQ(as(0, 0, save_of(dir, "v1")), HLSNAP_OK);
    CHECK_EQ(sh("[ $(find %s/blobs -type f -perm 0600 | wc -l) = 4 ]", dir), 0);
    acl_set(other, "default", 12003, 5, 0); /* that user may read what is made there, and not write */
    CHECK_EQ(as(0, 0, save_of(other, "v1")), HLSNAP_OK);
    CHECK_EQ(sh("[ $(find %s/blobs -type f -perm 0640 | wc -l) = 4 ]", other), 0);
    acl_mask = 7;
}

static void refuses_to_take(void) { /* in words, and before anything is written */
    static const struct { uid_t uid, gid; mode_t mode; const char *says; } rows[] = {
        {12001, 12001, 0644, "user 12001's"}, {12001, TEAM, 0640, "user 12001's"}, {12001, 12001, 0666, "user 12001's"},
        {12001, TEAM, 0660, NULL},            {12002, 12001, 0640, "of group 12001"}, {12002, 12001, 0644, NULL},
        {12002, 12001, 0604, "of group 12001"}, {12002, 12001, 0600, NULL},           {12002, TEAM, 0640, NULL}};
    size_t i;
    if (!root_here()) return;
    for (i = 0; i < HLSNAP_COUNT(rows); i++) {
        const char *dir = fresh();
        int k;
        CHECK_EQ(as(0, 0, save_of(dir, "v1")), HLSNAP_OK);
        CHECK_EQ(sh("cd %s && chown -R 12001:12001 . && find . -type d -exec chmod 777 {} + && chmod 666 .hlsnap.lock && "
                    "chmod 644 oci-layout blobs/sha256/* && chown %u:%u index.json && chmod %o index.json && "
                    "find . | sort | xargs stat -c '%%n %%i %%Z' >../before",
                    dir, (unsigned)rows[i].uid, (unsigned)rows[i].gid, (unsigned)rows[i].mode), 0);
        for (k = 0; k < 3; k++) {
            hlsnap_result r = as(12002, TEAM, k == 0 ? tag_of(dir, "v1", "x") : k == 1 ? save_of(dir, "new") : untag_of(dir, "v1"));
            CHECK_EQ(r, rows[i].says ? HLSNAP_ERR_OS : HLSNAP_OK);
            if (!rows[i].says) continue;
            CHECK(err.os_errno == EPERM && strstr(err.msg, rows[i].says) && strstr(err.msg, "index.json"));
            CHECK(!hlsnap_result_transient(&err));
        }
        if (rows[i].says) { /* a save hears it before it moves any bytes */
            act a = save_of(dir, "new");
            a.stops = true;
            CHECK_EQ(as(12002, TEAM, a), HLSNAP_ERR_OS);
            CHECK(err.os_errno == EPERM && strstr(err.msg, "index.json"));
        }
        if (rows[i].says)
            CHECK_EQ(sh("cd %s && find . | sort | xargs stat -c '%%n %%i %%Z' >../after && cmp ../before ../after", dir), 0);
        else
            CHECK_EQ(sh("[ $(stat -c %%u:%%a %s/index.json) = 12002:%o ]", dir, (unsigned)rows[i].mode), 0);
    }
}

static void permissions_on_request(void) {
    static const uint32_t bad[] = {0444, 0755, 01644, 0640 | 01u << 31, 0066};
    const char *dir = fresh(), *other = fresh();
    act a = save_of(dir, "v1");
    size_t i;
    mode_t mask = umask(077);
    for (i = 0; i < HLSNAP_COUNT(bad); i++) {
        a.mode = bad[i];
        CHECK_EQ(act_do(&a), HLSNAP_ERR_ARG);
        CHECK(strstr(err.msg, "desc: mode=0") != NULL);
    }
    CHECK(access(dir, F_OK) != 0);
    a.mode = 0644;
    CHECK_EQ(act_do(&a), HLSNAP_OK);
    CHECK_EQ(sh("rm %s/.hlsnap.lock", dir), 0); /* writers only */
    check_all(dir, geteuid(), getegid(), 0644, 0755);
    if (geteuid() == 0) CHECK_EQ(as(12001, 0, load_of(dir, "v1")), HLSNAP_OK);
    a = save_of(other, "v1");
    CHECK_EQ(act_do(&a), HLSNAP_OK); /* private; then one more is published in it */
    CHECK_EQ(sh("[ $(stat -c %%a %s/index.json) = 600 ]", other), 0);
    a.tag = "v2";
    a.mode = 0640;
    CHECK_EQ(act_do(&a), HLSNAP_OK);
    CHECK_EQ(sh("cd %s && [ $(stat -c %%a index.json) = 640 ] && [ $(find blobs -type f -perm 0640 | wc -l) -ge 3 ]", other), 0);
    CHECK_EQ(sh("[ $(find %s -type f -perm /0107 | wc -l) = 0 ] && [ $(stat -c %%a %s) = 700 ]", other, other), 0);
    umask(mask);
}

/* ---- file systems ---- */

static bool quiet; /* failures are expected */
static hlsnap_result here(act a) {
    const hlsnap_result r = act_do(&a);
    if (r && !quiet) printf("# %s of %s: %s, errno %d: %s\n", a.name, a.tag, hlsnap_result_name(r), err.os_errno, err.msg);
    return r;
}
/* Every name among the blobs is the sha256 of a regular file, and nothing else is left. */
static void check_tidy(const char *dir) {
    CHECK_EQ(sh("cd %s && [ -z \"$(ls -A | grep -vxE 'oci-layout|index.json|blobs|.hlsnap.lock')\" ] && cd blobs/sha256 && "
                "[ -z \"$(find . -mindepth 1 ! -type f)\" ] && sha256sum * | awk '$1 != $2 { exit 1 }'", dir), 0);
}

/* All that there is to do; runs on any file system: tests/filesystems.sh. */
static void fs_all(void) {
    const char *dir = fresh();
    hlsnap_oci_digest digest;
    CHECK_EQ(here(save_of(dir, "v1")), HLSNAP_OK);
    CHECK_EQ(here(save_of(dir, "v2")), HLSNAP_OK);
    CHECK_EQ(here(save_of(dir, "v2")), HLSNAP_OK);
    CHECK_EQ(here(tag_of(dir, "v2", "v3")), HLSNAP_OK);
    CHECK_EQ(here(load_of(dir, "v3")), HLSNAP_OK);
    CHECK_EQ(here(untag_of(dir, "v1")), HLSNAP_OK);
    CHECK_EQ(here(gc_of(dir)), HLSNAP_OK);
    CHECK_EQ(hlsnap_oci_flatten(dir, "v3", "flat", NULL, &digest, &err), HLSNAP_OK);
    CHECK_EQ(here(load_of(dir, "flat")), HLSNAP_OK);
    CHECK_EQ(sh("for f in %s/blobs/sha256/*; do [ $(stat -c %%s $f) -lt 9999 ] || { echo x >>$f; break; }; done", dir), 0);
    CHECK_EQ(here(save_of(dir, "v2")), HLSNAP_OK); /* heals it */
    CHECK_EQ(here(fsck_of(dir)), HLSNAP_OK);
    CHECK_EQ(here(load_of(dir, "v2")), HLSNAP_OK);
    check_tidy(dir);
}

/* Some write and others read, of one layout at a time: everybody's tag is there, and nobody fails. */
static void fs_beside(void) {
    const char *dir = fresh();
    pid_t pids[4];
    int i, k, status, bad = 0;
    CHECK_EQ(here(save_of(dir, "v1")), HLSNAP_OK);
    fflush(stdout);
    for (i = 0; i < 4; i++) {
        pids[i] = fork();
        if (pids[i]) continue;
        for (k = 0; k < 40 && !bad; k++) {
            char tag[40];
            snprintf(tag, sizeof(tag), "t%d-%d", i, k);
            bad = here(i == 0 ? load_of(dir, "v1") : tag_of(dir, "v1", tag));
            if (!bad && i == 1 && k % 8 == 0) bad = here(save_of(dir, tag));
            if (!bad && k % 2 && i) bad = here(untag_of(dir, tag));
        }
        fflush(stdout);
        _exit(bad != 0);
    }
    for (i = 0; i < 4; i++) CHECK(waitpid(pids[i], &status, 0) == pids[i] && status == 0);
    for (i = 1; i < 4; i++)
        for (k = 0; k < 40; k++) {
            char tag[40];
            snprintf(tag, sizeof(tag), "t%d-%d", i, k);
            quiet = k % 2;
            CHECK_EQ(here(load_of(dir, tag)), k % 2 ? HLSNAP_ERR_NOT_FOUND : HLSNAP_OK);
            quiet = false;
        }
    CHECK_EQ(here(fsck_of(dir)), HLSNAP_OK);
    check_tidy(dir);
}

static void without_links(void) { /* neither hard links nor flags of rename: a name is given by a plain rename */
    static const int errnos[] = {EPERM, EOPNOTSUPP, ENOSYS, EINVAL, EMLINK};
    size_t i;
    no_tmpfile = true;
    for (i = 0; i < HLSNAP_COUNT(errnos); i++) {
        const char *dir = fresh();
        no_links = errnos[i];
        fs_all();
        CHECK_EQ(here(save_of(dir, "v1")), HLSNAP_OK); /* a lock file that is made anew beside blobs */
        CHECK_EQ(sh("rm %s/.hlsnap.lock", dir), 0);
        CHECK_EQ(here(tag_of(dir, "v1", "v2")), HLSNAP_OK);
        CHECK_EQ(here(load_of(dir, "v2")), HLSNAP_OK);
        check_tidy(dir);
    }
    fs_beside();
    no_links = EIO;
    quiet = true;
    CHECK(here(save_of(fresh(), "v1")) == HLSNAP_ERR_OS && err.os_errno == EIO && strstr(err.msg, "rclone"));
    quiet = false;
    no_links = 0;
    no_tmpfile = false;
}

static void without_sync_of_directories(void) {
    const char *dir = fresh();
    no_sync = EINVAL;
    fs_all();
    no_sync = EOPNOTSUPP;
    fs_all();
    quiet = true;
    no_sync = EIO;
    CHECK(here(save_of(dir, "v1")) == HLSNAP_ERR_OS && err.os_errno == EIO);
    no_sync = 0;
    no_file_sync = EINVAL; /* a file's is never passed over */
    CHECK(here(save_of(dir, "v1")) == HLSNAP_ERR_OS && err.os_errno == EINVAL);
    no_file_sync = 0;
    quiet = false;
    CHECK(access(dir, F_OK) != 0);
}

static void without_permissions(void) { /* no reason to fail, unless somebody asked for them */
    act a = save_of(fresh(), "v1");
    const mode_t mask = umask(077);
    no_modes = EPERM;
    quiet = true;
    a.mode = 0644;
    CHECK(here(a) == HLSNAP_ERR_OS && err.os_errno == EPERM && strstr(err.msg, "chmod"));
    CHECK(access(a.dir, F_OK) != 0);
    CHECK(mkdir(a.dir, 0700) == 0 && chmod(a.dir, 0770) == 0); /* its group's: files want to be 0660 */
    CHECK(here(a) == HLSNAP_ERR_OS && err.os_errno == EPERM && strstr(err.msg, "chmod"));
    quiet = false;
    a.mode = 0;
    CHECK_EQ(here(a), HLSNAP_OK);
    CHECK_EQ(here(load_of(a.dir, "v1")), HLSNAP_OK);
    no_modes = 0;
    umask(mask);
}

static void without_locks(void) {
    const char *dir = fresh();
    CHECK_EQ(here(save_of(dir, "v1")), HLSNAP_OK);
    no_locks = quiet = true;
    CHECK(here(save_of(dir, "v2")) == HLSNAP_ERR_OS && err.os_errno == EINVAL && strstr(err.msg, "no byte-range locks"));
    CHECK(here(tag_of(dir, "v1", "v2")) == HLSNAP_ERR_OS && err.os_errno == EINVAL && strstr(err.msg, ".hlsnap.lock"));
    CHECK(!hlsnap_result_transient(&err));
    CHECK_EQ(here(load_of(dir, "v1")), HLSNAP_OK); /* a reader takes none */
    CHECK_EQ(here(save_of("new", "v2")), HLSNAP_ERR_OS);
    CHECK_EQ(sh("[ ! -e new ]"), 0);
    no_locks = false;
    locks_lie = true;
    CHECK(here(save_of(dir, "v2")) == HLSNAP_ERR_OS && err.os_errno == EOPNOTSUPP && strstr(err.msg, "two at once"));
    CHECK(here(gc_of(dir)) == HLSNAP_ERR_OS && err.os_errno == EOPNOTSUPP && strstr(err.msg, ".hlsnap.lock"));
    CHECK(!hlsnap_result_transient(&err));
    CHECK_EQ(here(load_of(dir, "v1")), HLSNAP_OK);
    locks_lie = quiet = false;
    CHECK_EQ(here(save_of(dir, "v2")), HLSNAP_OK);
}

/* Where the file system replaces a file in two steps, or knows it no more, it is there again in a moment. */
static void looked_for_again(void) {
    static const char *const names[] = {"index.json", "oci-layout"};
    const char *dir = fresh();
    act acts[7];
    size_t i, k;
    int number;
    CHECK_EQ(here(save_of(dir, "v1")), HLSNAP_OK);
    acts[0] = load_of(dir, "v1"), acts[1] = tag_of(dir, "v1", "v3"), acts[2] = untag_of(dir, "v3"), acts[3] = gc_of(dir);
    acts[4] = fsck_of(dir), acts[5] = save_of(dir, "v2"), acts[6] = load_of(dir, "v1"); /* a save does not begin a new index */
    for (i = 0; i < HLSNAP_COUNT(names); i++)
        for (number = 0; number < 2; number++)
            for (k = 0; k < HLSNAP_COUNT(acts); k++) {
                vanish = names[i], vanish_errno = number ? ESTALE : ENOENT, vanish_times = 5;
                vanish_opens = number == 1; /* to look for a name says ENOENT */
                slept = 0;
                CHECK_EQ(here(acts[k]), HLSNAP_OK);
                CHECK(slept < 300000000 && (vanish_times == 5 || slept >= 1000000));
                CHECK_EQ(vanish_times, 0);
                if (k == 1) vanish_times = 0, CHECK_EQ(here(load_of(dir, "v3")), HLSNAP_OK);
                vanish_times = 0;
            }
    vanish = NULL;
    CHECK_EQ(sh("rm %s/index.json && mkdir empty", dir), 0);
    quiet = true;
    slept = 0;
    CHECK(here(load_of(dir, "v1")) == HLSNAP_ERR_FILE && err.os_errno == ENOENT && strstr(err.msg, "index.json"));
    CHECK(slept > 200000000 && slept < 300000000);
    slept = 0;
    CHECK(here(load_of("empty", "v1")) == HLSNAP_ERR_NOT_FOUND && err.os_errno == ENOENT);
    CHECK(here(load_of("nowhere", "v1")) == HLSNAP_ERR_NOT_FOUND && here(gc_of("nowhere")) == HLSNAP_ERR_NOT_FOUND);
    CHECK_EQ(here(save_of("empty", "v1")), HLSNAP_OK);
    CHECK_EQ(here(save_of("nowhere", "v1")), HLSNAP_OK);
    CHECK_EQ(slept, 0);
    quiet = false;
}

static void links_lead_nowhere(void) { /* .hlsnap-tmp is a directory of the layout's own: guest memory is not written elsewhere */
    static const char *const makes[] = {"ln -s ../out .hlsnap-tmp", "ln -s out .hlsnap-tmp && mkdir out", "echo >.hlsnap-tmp"};
    size_t i;
    for (i = 0; i < HLSNAP_COUNT(makes); i++) {
        const char *dir = fresh();
        CHECK_EQ(here(save_of(dir, "v1")), HLSNAP_OK);
        CHECK_EQ(sh("mkdir -p out && cd %s && %s && find . | sort >../before", dir, makes[i]), 0);
        no_tmpfile = quiet = true;
        CHECK(here(save_of(dir, "v2")) == HLSNAP_ERR_FILE && strstr(err.msg, ".hlsnap-tmp"));
        CHECK(here(tag_of(dir, "v1", "v2")) == HLSNAP_ERR_FILE && strstr(err.msg, ".hlsnap-tmp"));
        CHECK(here(gc_of(dir)) == HLSNAP_ERR_FILE && strstr(err.msg, ".hlsnap-tmp"));
        no_tmpfile = quiet = false;
        CHECK_EQ(sh("[ -z \"$(ls -A out)\" ] && cd %s && find . | sort | cmp - ../before", dir), 0);
    }
}

static void collects_behind_no_link(void) { /* what lies behind one is another layout's, also where the index lists nothing */
    static const char *const makes[] = {"rm -r blobs && ln -s ../%s/blobs blobs", "rmdir blobs/sha256 && ln -s ../../%s/blobs/sha256 blobs/sha256"};
    const char *other = fresh();
    size_t i;
    CHECK_EQ(here(save_of(other, "v1")), HLSNAP_OK);
    CHECK_EQ(here(untag_of(other, "v1")), HLSNAP_OK); /* and not even there it is tagged */
    for (i = 0; i < HLSNAP_COUNT(makes); i++) {
        const char *dir = fresh();
        char make[200];
        CHECK_EQ(here(save_of(dir, "v2")), HLSNAP_OK);
        CHECK_EQ(here(untag_of(dir, "v2")), HLSNAP_OK);
        CHECK_EQ(here(gc_of(dir)), HLSNAP_OK);
        snprintf(make, sizeof(make), makes[i], other);
        CHECK_EQ(sh("cd %s && %s", dir, make), 0);
        quiet = true;
        CHECK(here(gc_of(dir)) == HLSNAP_ERR_FILE && strstr(err.msg, "blobs"));
        CHECK(here(fsck_of(dir)) == HLSNAP_ERR_FILE && strstr(err.msg, "blobs"));
        quiet = false;
        CHECK_EQ(sh("[ $(ls %s/blobs/sha256 | wc -l) = 4 ]", other), 0);
    }
}

/* ---- collecting ---- */

static int blobs_of(const char *dir) {
    char line[100];
    int n = -1;
    FILE *f;
    snprintf(line, sizeof(line), "ls %s/blobs/sha256 | wc -l", dir);
    f = popen(line, "r");
    CHECK(f && fscanf(f, "%d", &n) == 1 && pclose(f) == 0);
    return n;
}

static void collects_around_what_is_stuck(void) { /* immutable, in use, another's: the rest goes all the same */
    static const int errnos[] = {EPERM, EBUSY, EACCES, EIO};
    size_t i;
    for (i = 0; i < HLSNAP_COUNT(errnos); i++) {
        const char *dir = fresh();
        uint64_t freed = 0;
        FILE *f;
        CHECK_EQ(here(save_of(dir, "v1")), HLSNAP_OK);
        CHECK_EQ(here(save_of(dir, "v2")), HLSNAP_OK);
        CHECK_EQ(sh("ls %s/blobs/sha256 | head -n 2 >names; echo x >%s/.hlsnap-1-2.tmp; echo x >%s/.hlsnap-3-4.tmp", dir, dir, dir), 0);
        f = fopen("names", "r");
        CHECK(f && fscanf(f, "%69s %69s", stuck[0], stuck[1]) == 2 && fclose(f) == 0);
        CHECK_EQ(here(untag_of(dir, "v1")), HLSNAP_OK);
        CHECK_EQ(here(untag_of(dir, "v2")), HLSNAP_OK);
        CHECK_EQ(blobs_of(dir), 8);
        stuck_errno = errnos[i];
        CHECK_EQ(hlsnap_oci_gc(dir, 0, &freed, &err), HLSNAP_ERR_OS);
        CHECK_EQ(err.os_errno, errnos[i]);
        CHECK_EQ(hlsnap_result_transient(&err), errnos[i] == EBUSY);
        CHECK((strstr(err.msg, stuck[0]) || strstr(err.msg, stuck[1])) && strstr(err.msg, "could not be removed: 2;"));
        CHECK_EQ(blobs_of(dir), 2);
        CHECK(freed > 0 && sh("[ ! -e %s/.hlsnap-1-2.tmp ] && [ ! -e %s/.hlsnap-3-4.tmp ]", dir, dir) == 0);
        stuck_errno = 0;
        CHECK_EQ(here(gc_of(dir)), HLSNAP_OK);
        CHECK_EQ(blobs_of(dir), 0);
    }
}

static void times_in_the_future(void) { /* of a clock that was ahead: no reason to keep a file for ever */
    static const struct { const char *time; uint64_t grace; int left; } rows[] = {
        {"+2 days", 0, 0}, {"+2 days", 3600, 4}, {"-2 days", 3600, 4}, {"+10 min", 3600, 4}, {"now", 0, 0}, {"+99 years", 0, 0}};
    struct stat st;
    struct timespec now;
    size_t i;
    for (i = 0; i < HLSNAP_COUNT(rows); i++) { /* the time of the change cannot be set, and is now */
        const char *dir = fresh();
        CHECK_EQ(here(save_of(dir, "v1")), HLSNAP_OK);
        CHECK_EQ(here(untag_of(dir, "v1")), HLSNAP_OK);
        CHECK_EQ(sh("touch -d '%s' %s/blobs/sha256/*", rows[i].time, dir), 0);
        CHECK_EQ(hlsnap_oci_gc(dir, rows[i].grace, NULL, &err), HLSNAP_OK);
        CHECK_EQ(blobs_of(dir), rows[i].left);
    }
    clock_gettime(CLOCK_REALTIME, &now);
    for (i = 0; i < 6; i++) {
        static const int64_t off[] = {-7200, -3500, -10, 10, 3500, 7200};
        memset(&st, 0, sizeof(st));
        st.st_mtim.tv_sec = st.st_ctim.tv_sec = now.tv_sec + off[i];
        CHECK_EQ(hlsnap__oci_old(&st, now.tv_sec - 3600), off[i] < -3600 || off[i] > 3600);
        st.st_mtim.tv_sec = now.tv_sec + 9999;
        CHECK_EQ(hlsnap__oci_old(&st, now.tv_sec - 3600), off[i] < -3600 || off[i] > 3600);
        st.st_ctim.tv_sec = now.tv_sec;
        CHECK(!hlsnap__oci_old(&st, now.tv_sec - 3600));
        CHECK(hlsnap__oci_old(&st, INT64_MAX) && !hlsnap__oci_old(&st, -1));
    }
}

/* ---- waiting for each other ---- */

/* Takes a lock as another writer does: the descriptor, to be closed; -1: it is taken. */
static int hold(const char *dir, int byte, int type, bool wait) {
    struct flock f;
    char path[100];
    int fd;
    memset(&f, 0, sizeof(f));
    snprintf(path, sizeof(path), "%s/.hlsnap.lock", dir);
    fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    f.l_type = (short)type;
    f.l_start = byte;
    f.l_len = 1;
    if (fcntl(fd, wait ? F_OFD_SETLKW : F_OFD_SETLK, &f) == 0) return fd;
    close(fd);
    return -1;
}

static void tags_beside_savers(void) { /* who only changes the index waits neither for a save nor for a gc that waits for it */
    const char *dir = fresh();
    pid_t gc, other;
    int saver, status, turn;
    CHECK_EQ(here(save_of(dir, "v1")), HLSNAP_OK);
    saver = hold(dir, HLSNAP__OCI_LOCK_GC, F_RDLCK, false);
    CHECK(saver >= 0);
    fflush(stdout);
    gc = fork();
    if (gc == 0) _exit(close(saver) != 0 || hlsnap_oci_gc(dir, 0, NULL, NULL) != HLSNAP_OK);
    while ((turn = hold(dir, HLSNAP__OCI_LOCK_TURN, F_RDLCK, false)) >= 0) close(turn), usleep(1000); /* until it waits */
    other = fork();
    if (other == 0) {
        alarm(10);
        close(saver);
        status = here(tag_of(dir, "v1", "v2")) || here(untag_of(dir, "v1")) || here(load_of(dir, "v2"));
        fflush(stdout);
        _exit(status);
    }
    CHECK(waitpid(other, &status, 0) == other && status == 0);
    CHECK_EQ(waitpid(gc, &status, WNOHANG), 0);
    close(saver);
    CHECK(waitpid(gc, &status, 0) == gc && status == 0);
    CHECK_EQ(here(load_of(dir, "v2")), HLSNAP_OK);
}

static struct { int calls, until, result, release; bool odd; } asked;
static bool ask(uint64_t done, uint64_t total, void *user) {
    if (user != &asked || (total == UINT64_MAX && done != 0)) asked.odd = true;
    if (total != UINT64_MAX) return true; /* not waiting: at work */
    if (++asked.calls < asked.until) return true;
    if (asked.release >= 0) close(asked.release), asked.release = -1;
    return asked.result;
}

static hlsnap_result do_with(int what, const char *dir, const hlsnap_oci_desc *d) {
    hlsnap_snapshot *s;
    hlsnap_result r;
    memset(&err, 0, sizeof(err));
    if (what == 0) return hlsnap_oci_tag_with(dir, "v1", "v2", d, &err);
    if (what == 1) return hlsnap_oci_untag_with(dir, "v2", d, &err);
    if (what == 2) return hlsnap_oci_gc_with(dir, 0, d, NULL, &err);
    if (what == 3) return hlsnap_oci_fsck_with(dir, true, d, &err);
    s = snapshot_small(77);
    r = hlsnap_oci_save(dir, "v3", s, d, NULL, &err);
    hlsnap_snapshot_release(s);
    return r;
}

static void waits_as_long_as_asked(void) {
    static const char *const names[] = {"hlsnap_oci_tag_with: ", "hlsnap_oci_untag_with: ", "hlsnap_oci_gc_with: ",
                                        "hlsnap_oci_fsck_with: ", "hlsnap_oci_save: "};
    static const int bytes[] = {HLSNAP__OCI_LOCK_INDEX, HLSNAP__OCI_LOCK_GC, HLSNAP__OCI_LOCK_TURN};
    const char *dir = fresh();
    int what, i;
    CHECK_EQ(here(save_of(dir, "v1")), HLSNAP_OK);
    for (what = 0; what < 5; what++)
        for (i = 0; i < 3; i++) {
            hlsnap_oci_desc d = HLSNAP_ZERO;
            int fd = hold(dir, bytes[i], F_WRLCK, false);
            if (what < 2 && i > 0) close(fd), fd = hold(dir, bytes[0], F_WRLCK, false); /* of the others they take none */
            d.wait_ns = 3000000;
            CHECK_EQ(sh("find %s -type f ! -name .hlsnap.lock | sort | xargs sha256sum >before", dir), 0);
            CHECK_EQ(do_with(what, dir, &d), HLSNAP_ERR_OS);
            CHECK(err.os_errno == EAGAIN && hlsnap_result_transient(&err));
            CHECK(strstr(err.msg, ".hlsnap.lock: another writer has it, ") != NULL);
            CHECK(strncmp(err.msg, names[what], strlen(names[what])) == 0);
            memset(&asked, 0, sizeof(asked));
            asked.until = 3, asked.release = -1;
            d.wait_ns = 0, d.progress = ask, d.user = &asked;
            CHECK_EQ(do_with(what, dir, &d), HLSNAP_ERR_CANCELLED);
            CHECK(asked.calls == 3 && !asked.odd && strstr(err.msg, ".hlsnap.lock: cancelled after "));
            CHECK_EQ(sh("find %s -type f ! -name .hlsnap.lock | sort | xargs sha256sum | cmp - before", dir), 0);
            memset(&asked, 0, sizeof(asked)); /* and when it is given back meanwhile: done */
            asked.until = 3, asked.release = fd, asked.result = true;
            d.wait_ns = 60000000000u;
            CHECK_EQ(do_with(what, dir, &d), HLSNAP_OK);
            CHECK(asked.calls == 3 && !asked.odd);
            if (what == 1) CHECK_EQ(hlsnap_oci_tag(dir, "v1", "v2", &err), HLSNAP_OK);
        }
}

static void waits_no_more_than_needed(void) {
    hlsnap_oci_desc d = HLSNAP_ZERO;
    const char *dir = fresh();
    int fd;
    CHECK_EQ(here(save_of(dir, "v1")), HLSNAP_OK);
    fd = hold(dir, HLSNAP__OCI_LOCK_GC, F_WRLCK, false);
    d.wait_ns = 1;
    CHECK_EQ(hlsnap_oci_fsck_with(dir, false, &d, &err), HLSNAP_OK);
    CHECK_EQ(hlsnap_oci_tag_with(dir, "v1", "v2", &d, &err), HLSNAP_OK);
    CHECK_EQ(hlsnap_oci_load(dir, "nothing", &d, &(hlsnap_snapshot *){NULL}, NULL, &err), HLSNAP_ERR_NOT_FOUND);
    CHECK(hlsnap_oci_gc_with(dir, 0, &d, NULL, &err) == HLSNAP_ERR_OS && err.os_errno == EAGAIN);
    close(fd);
    CHECK_EQ(hlsnap_oci_gc_with(dir, 0, &d, NULL, &err), HLSNAP_OK);
    d._end_canary = 1;
    CHECK_EQ(hlsnap_oci_tag_with(dir, "v1", "v2", &d, &err), HLSNAP_ERR_ARG);
    CHECK_EQ(hlsnap_oci_untag_with(dir, "v2", &d, &err), HLSNAP_ERR_ARG);
    CHECK_EQ(hlsnap_oci_gc_with(dir, 0, &d, NULL, &err), HLSNAP_ERR_ARG);
    CHECK_EQ(hlsnap_oci_fsck_with(dir, false, &d, &err), HLSNAP_ERR_ARG);
}

static struct { const char *dir; int fd; bool take; } taken;
static bool take_and_cancel(uint64_t done, uint64_t total, void *user) { /* somebody begins to change the index; the save fails */
    (void)done, (void)total, (void)user;
    if (taken.take) taken.fd = hold(taken.dir, HLSNAP__OCI_LOCK_INDEX, F_WRLCK, false);
    return false;
}

static void lock_file_stays_in_use(void) { /* a save that fails removes what it made, but not a lock file that another has locked */
    int take;
    for (take = 0; take < 2; take++) {
        const char *dir = fresh();
        hlsnap_oci_desc d = HLSNAP_ZERO;
        CHECK_EQ(here(save_of(dir, "v1")), HLSNAP_OK);
        CHECK_EQ(sh("rm %s/.hlsnap.lock", dir), 0);
        taken.dir = dir, taken.fd = -1, taken.take = take;
        d.progress = take_and_cancel;
        CHECK_EQ(do_with(4, dir, &d), HLSNAP_ERR_CANCELLED);
        CHECK(!take || taken.fd >= 0);
        CHECK_EQ(sh("[ -e %s/.hlsnap.lock ]", dir), take ? 0 : 1);
        CHECK_EQ(hold(dir, HLSNAP__OCI_LOCK_INDEX, F_WRLCK, false) < 0, take);
        if (taken.fd >= 0) close(taken.fd);
    }
}

static void lock_file_is_snatched(void) { /* many times in a row, as it is from those who wait for it behind others */
    const char *dir = fresh();
    char path[100];
    int what;
    CHECK_EQ(here(save_of(dir, "v1")), HLSNAP_OK);
    snprintf(path, sizeof(path), "%s/.hlsnap.lock", dir);
    snatched = path;
    for (what = 0; what < 5; what++) {
        hlsnap_oci_desc d = HLSNAP_ZERO;
        snatch_times = 300;
        if (what == 3) d.wait_ns = 60000000000u; /* and those who do not wait for ever */
        CHECK_EQ(do_with(what, dir, &d), HLSNAP_OK);
        CHECK_EQ(snatch_times, 0);
        if (what == 1) CHECK_EQ(hlsnap_oci_tag(dir, "v1", "v2", &err), HLSNAP_OK);
        snatch_times = -1;
        memset(&asked, 0, sizeof(asked));
        asked.until = 3, asked.release = -1;
        d.wait_ns = 0, d.progress = ask, d.user = &asked;
        CHECK_EQ(do_with(what, dir, &d), HLSNAP_ERR_CANCELLED);
        CHECK(asked.calls == 3 && !asked.odd && strstr(err.msg, ".hlsnap.lock: cancelled after "));
        d.progress = NULL, d.wait_ns = 3000000;
        CHECK(do_with(what, dir, &d) == HLSNAP_ERR_OS && err.os_errno == EAGAIN && hlsnap_result_transient(&err));
        snatch_moves = true; /* it is there, and another one: no reason to wait for ever */
        d.wait_ns = 0;
        CHECK(do_with(what, dir, &d) == HLSNAP_ERR_OS && err.os_errno == EAGAIN && strstr(err.msg, "another one each time"));
        snatch_moves = false;
    }
    snatched = NULL;
    snatch_times = 0;
    CHECK_EQ(here(fsck_of(dir)), HLSNAP_OK);
}

/* Removes the lock file as a save that fails does, again and again. */
static int remover(const char *dir) {
    char path[100];
    snprintf(path, sizeof(path), "%s/.hlsnap.lock", dir);
    while (access("stop", F_OK) != 0) {
        const int gc = hold(dir, HLSNAP__OCI_LOCK_GC, F_WRLCK, false);
        const int turn = gc < 0 ? -1 : hold(dir, HLSNAP__OCI_LOCK_INDEX, F_WRLCK, false);
        struct stat a, b, named;
        if (turn >= 0 && fstat(gc, &a) == 0 && fstat(turn, &b) == 0 && stat(path, &named) == 0 && a.st_ino == b.st_ino &&
            a.st_ino == named.st_ino && unlink(path) != 0)
            return 1;
        if (turn >= 0) close(turn);
        if (gc >= 0) close(gc);
        usleep(200);
    }
    return 0;
}

static void lock_file_comes_and_goes(void) { /* and no tag is lost: two never hold the index lock at once */
    const char *dir = fresh();
    pid_t pids[4];
    int i, k, status, bad = 0;
    CHECK_EQ(here(save_of(dir, "v1")), HLSNAP_OK);
    fflush(stdout);
    for (i = 0; i < 4; i++) {
        pids[i] = fork();
        if (pids[i]) continue;
        for (k = 0; i > 0 && k < 60 && !bad; k++) {
            char tag[40];
            snprintf(tag, sizeof(tag), "t%d-%d", i, k);
            bad = here(i == 3 && k % 4 == 0 ? save_of(dir, tag) : tag_of(dir, "v1", tag)) != HLSNAP_OK;
        }
        if (i == 0) bad = remover(dir);
        fflush(stdout);
        _exit(bad != 0);
    }
    for (i = 1; i < 4; i++) CHECK(waitpid(pids[i], &status, 0) == pids[i] && status == 0);
    CHECK_EQ(sh("touch stop"), 0);
    CHECK(waitpid(pids[0], &status, 0) == pids[0] && status == 0 && unlink("stop") == 0);
    for (i = 1; i < 4; i++)
        for (k = 0; k < 60; k++) {
            char tag[40];
            snprintf(tag, sizeof(tag), "t%d-%d", i, k);
            CHECK_EQ(here(load_of(dir, tag)), HLSNAP_OK);
        }
    CHECK_EQ(here(fsck_of(dir)), HLSNAP_OK);
}

static const test_row tests[] = {TEST(root_takes_nothing), TEST(teams_share), TEST(acls_stay), TEST(masks_count), TEST(refuses_to_take),
                                 TEST(permissions_on_request), TEST(fs_all), TEST(fs_beside), TEST(without_links),
                                 TEST(without_sync_of_directories), TEST(without_permissions), TEST(without_locks), TEST(links_lead_nowhere), TEST(collects_behind_no_link),
                                 TEST(looked_for_again), TEST(collects_around_what_is_stuck), TEST(times_in_the_future),
                                 TEST(tags_beside_savers), TEST(waits_as_long_as_asked), TEST(waits_no_more_than_needed),
                                 TEST(lock_file_stays_in_use), TEST(lock_file_is_snatched),
                                 TEST(lock_file_comes_and_goes)};

int main(int argc, char **argv) {
    const char *tmp = getenv("TMPDIR");
    int r;
    snprintf(home, sizeof(home), "%s/hlsnap-shared-XXXXXX", tmp ? tmp : "/tmp");
    if (!mkdtemp(home) || chdir(home) != 0) return 1;
    if (chmod(home, 0755) != 0) printf("# no permissions here: errno %d\n", errno);
    r = TEST_MAIN(tests, argc, argv);
    if (chdir("/") == 0) sh("rm -rf %s", home);
    return r;
}

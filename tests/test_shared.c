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
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>
#include "test.h"
#define HLSNAP_IMPLEMENTATION
#include "hlsnap_oci.h"
#include "oci_make.h"

/* ---- helpers ---- */

static char home[200];
static hlsnap_error err;

__attribute__((format(printf, 1, 2))) static int sh(const char *fmt, ...) {
    char line[2000];
    va_list ap;
    int r;
    va_start(ap, fmt);
    vsnprintf(line, sizeof(line), fmt, ap);
    va_end(ap);
    fflush(stdout);
    r = system(line);
    return WIFEXITED(r) ? WEXITSTATUS(r) : -1;
}

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
} act;

static hlsnap_result act_do(const act *a) {
    hlsnap_oci_desc d = HLSNAP_ZERO;
    hlsnap_snapshot *s = NULL;
    hlsnap_result r = HLSNAP_ERR_ARG;
    memset(&err, 0, sizeof(err));
    d.mode = a->mode;
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
static act save_of(const char *dir, const char *tag) { act a = {"save", dir, NULL, tag, 0}; return a; }
static act load_of(const char *dir, const char *tag) { act a = {"load", dir, NULL, tag, 0}; return a; }
static act tag_of(const char *dir, const char *ref, const char *tag) { act a = {"tag", dir, ref, tag, 0}; return a; }
static act untag_of(const char *dir, const char *tag) { act a = {"untag", dir, NULL, tag, 0}; return a; }
static act gc_of(const char *dir) { act a = {"gc", dir, NULL, "", 0}; return a; }
static act fsck_of(const char *dir) { act a = {"fsck", dir, NULL, "", 0}; return a; }

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
static void acl_set(const char *path, const char *name, uint32_t user, uint16_t may, uint16_t group) {
    struct { uint32_t version; struct { uint16_t tag, may; uint32_t who; } e[5]; } acl =
        {2, {{1, 6, ~0u}, {2, may, user}, {4, group, ~0u}, {16, 7, ~0u}, {32, 0, ~0u}}};
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
    CHECK_EQ(sh("chown -R 12001:12001 %s && find %s -type d -exec chmod 755 {} + && chmod 644 %s/oci-layout %s/blobs/sha256/*", dir, dir,
                dir, dir), 0);
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

static void refuses_to_take(void) { /* in words, and before anything is written */
    static const struct { uid_t uid, gid; mode_t mode; const char *says; } rows[] = {
        {12001, 12001, 0644, "user 12001's"}, {12001, TEAM, 0640, "user 12001's"}, {12001, 12001, 0666, "user 12001's"},
        {12001, TEAM, 0660, NULL},            {12002, 12001, 0640, "of group 12001"}, {12002, 12001, 0644, NULL},
        {12002, 12001, 0600, NULL},           {12002, TEAM, 0640, NULL}};
    size_t i;
    if (!root_here()) return;
    for (i = 0; i < HLSNAP_COUNT(rows); i++) {
        const char *dir = fresh();
        int k;
        CHECK_EQ(as(0, 0, save_of(dir, "v1")), HLSNAP_OK);
        CHECK_EQ(sh("cd %s && chown -R 12001:12001 . && find . -type d -exec chmod 777 {} + && chmod 666 .hlsnap.lock && "
                    "chmod 644 oci-layout blobs/sha256/* && chown %u:%u index.json && chmod %o index.json && find . | sort | xargs stat -c '%%n %%i %%Z' "
                    ">../before",
                    dir, (unsigned)rows[i].uid, (unsigned)rows[i].gid, (unsigned)rows[i].mode), 0);
        for (k = 0; k < 3; k++) {
            hlsnap_result r = as(12002, TEAM, k == 0 ? tag_of(dir, "v1", "x") : k == 1 ? save_of(dir, "new") : untag_of(dir, "v1"));
            CHECK_EQ(r, rows[i].says ? HLSNAP_ERR_OS : HLSNAP_OK);
            if (!rows[i].says) continue;
            CHECK(err.os_errno == EPERM && strstr(err.msg, rows[i].says) && strstr(err.msg, "index.json"));
            CHECK(!hlsnap_result_transient(&err));
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
    CHECK_EQ(sh("[ $(stat -c %%a %s/index.json) = 640 ] && [ $(find %s/blobs -type f -perm 0640 | wc -l) -ge 3 ]", other, other), 0);
    CHECK_EQ(sh("[ $(find %s -type f -perm /0107 | wc -l) = 0 ] && [ $(stat -c %%a %s) = 700 ]", other, other), 0);
    umask(mask);
}

static const test_row tests[] = {TEST(root_takes_nothing), TEST(teams_share), TEST(acls_stay), TEST(refuses_to_take),
                                 TEST(permissions_on_request)};

int main(int argc, char **argv) {
    const char *tmp = getenv("TMPDIR");
    int r;
    snprintf(home, sizeof(home), "%s/hlsnap-shared-XXXXXX", tmp ? tmp : "/tmp");
    if (!mkdtemp(home) || chmod(home, 0755) != 0 || chdir(home) != 0) return 1;
    r = TEST_MAIN(tests, argc, argv);
    if (chdir("/") == 0) sh("rm -rf %s", home);
    return r;
}

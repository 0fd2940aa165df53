/* test_clone.c - guard PRIVATE: what a loaded snapshot reads is its own, whatever becomes of the files; a clone where the file
   system makes them, a sealed copy elsewhere. Most tests go three ways: what the kernel does here, clones that are made by
   copying, and none.
   cc:  cc -std=gnu11 -I.. test_clone.c -lcjson -o test_clone
   run: ./test_clone [name]      works in a directory of its own under $TMPDIR or /tmp
        EXPECT_CLONE=1: only what the kernel does, which must be clones; 0: which must not be; as tests/filesystems.sh has it */
#define _GNU_SOURCE 1
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include <linux/fiemap.h>
#include <linux/fs.h>
#include "test.h"

/* ---- FICLONE, as hlsnap sees it ---- */

typedef enum way { KERNEL, COPYING, NONE, NUM_WAYS } way;
static const char *const way_names[] = {"as the kernel does", "with a clone made by copying", "without clones"};
static way way_now;
static int refusal = EOPNOTSUPP;      /* of NONE */
static void (*clone_next)(void), (*clone_made)(void); /* run once, around the next FICLONE */
static int ioctls_seen;

static void once(void (**hook)(void)) {
    void (*run)(void) = *hook;
    *hook = NULL;
    if (run) run();
}

static int copy_file(int to, int from) {
    char data[65536];
    off_t at = 0;
    ssize_t n;
    while ((n = pread(from, data, sizeof(data), at)) > 0) {
        if (pwrite(to, data, (size_t)n, at) != n) return -1;
        at += n;
    }
    return n < 0 ? -1 : 0;
}

static long t_syscall(long nr, long a, long b, long c, long d, long e, long f) {
    long r;
    if (nr != SYS_ioctl || (unsigned long)b != FICLONE) return syscall(nr, a, b, c, d, e, f);
    ioctls_seen++;
    once(&clone_next);
    if (way_now == NONE) r = (errno = refusal, -1);
    else r = way_now == KERNEL ? ioctl((int)a, FICLONE, c) : copy_file((int)a, (int)c);
    once(&clone_made);
    return r;
}
#define T_ARG6(n, a, b, c, d, e, f, ...) t_syscall(n, (long)(a), (long)(b), (long)(c), (long)(d), (long)(e), (long)(f))
#define syscall(...) T_ARG6(__VA_ARGS__, 0, 0, 0, 0, 0, 0, 0)
#define HLSNAP_IMPLEMENTATION
#include "hlsnap_oci.h"
#undef syscall
#include "oci_make.h"

/* ---- helpers ---- */

static hlsnap_error err;
static char dir[16];      /* the layout at hand */
static char blob[2][120]; /* its memory layers; [0] is the large one */

static int count_fds(void) {
    int fd, n = 0;
    for (fd = 0; fd < 1024; fd++) n += fcntl(fd, F_GETFD) >= 0;
    return n;
}

static hlsnap_oci_desc desc_of(hlsnap_oci_guard guard, bool unverified, bool later, uint32_t threads) {
    hlsnap_oci_desc d = HLSNAP_ZERO;
    d.guard = guard;
    d.disable_verify = unverified;
    d.verify_later = later;
    d.threads = threads;
    return d;
}

static hlsnap_result try_load(const hlsnap_oci_desc *d, hlsnap_snapshot **t) {
    memset(&err, 0, sizeof(err));
    return hlsnap_oci_load(dir, "v2", d, t, NULL, &err);
}

static hlsnap_snapshot *load(const hlsnap_oci_desc *d) {
    hlsnap_snapshot *t = NULL;
    if (!CHECK_EQ(try_load(d, &t), HLSNAP_OK)) printf("# %s\n", err.msg);
    return t;
}

/* A guest of 6 MiB, all of it in one layer, and one over it that has changed 40 of its pages. */
#define PAGES 1600u
static hlsnap_snapshot *snapshot_base(void) {
    static const hlsnap__extent e[] = {{0, 4, 0, 0}, {6, 3, 0, 4}, {16, PAGES - 7, 0, 7}};
    hlsnap__guest *g = guest_new();
    uint32_t i = 0;
    while (g->layout.regions[i].kind != HLSNAP__HEAP) i++;
    g->layout.regions[i++].pages += PAGES;
    for (; i < g->layout.num_regions; i++) g->layout.regions[i].gva += PAGES * P;
    g->layout.pages += PAGES;
    g->id = hlsnap__guest_id(g);
    return snapshot_over(g, layer_new(PAGES, 5, 20), NULL, e, HLSNAP_COUNT(e));
}

static hlsnap_snapshot *snapshot_next(const hlsnap_snapshot *base) {
    static const hlsnap__extent e[] = {{0, 4, 0, 0},   {6, 2, 0, 4},      {8, 1, 1, 0},
                                       {16, 700, 0, 7}, {716, 39, 1, 1}, {755, PAGES - 7 - 739, 0, 746}};
    hlsnap__retain(&base->guest->refs);
    hlsnap__retain(&base->layers[0]->refs);
    return snapshot_over(base->guest, base->layers[0], layer_new(40, 6, 99), e, HLSNAP_COUNT(e));
}

static hlsnap_snapshot *whole; /* what v2 is */

/* The layout that others are copied from: with both, v1 and v2. */
static void template_make(void) {
    const hlsnap_oci_desc d = desc_of(HLSNAP_OCI_GUARD_NONE, false, false, 0);
    hlsnap_snapshot *base = snapshot_base(), *t;
    uint32_t i;
    strcpy(dir, "template");
    CHECK_EQ(hlsnap_oci_save(dir, "v1", base, NULL, NULL, &err), HLSNAP_OK);
    whole = snapshot_next(base);
    CHECK_EQ(hlsnap_oci_save(dir, "v2", whole, NULL, NULL, &err), HLSNAP_OK);
    t = load(&d);
    CHECK_EQ(t->num_layers, 2);
    for (i = 0; i < 2; i++) {
        hlsnap__place *place = hlsnap__layer_place_get(t->layers[i], 0);
        snprintf(blob[i], sizeof(blob[i]), "layout/blobs/sha256/%s", place->memory + 7);
        hlsnap__place_release(place);
    }
    hlsnap_snapshot_release(t);
    hlsnap_snapshot_release(base);
    strcpy(dir, "layout");
}

static void layout_new(void) { CHECK_EQ(sh("rm -rf layout && cp -a --reflink=never template layout"), 0); }

static hlsnap_snapshot *load_new(const hlsnap_oci_desc *d) {
    layout_new();
    return load(d);
}

static bool has_tmpfile(void) {
    const int fd = open(".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (fd >= 0) close(fd);
    return fd >= 0;
}

/* Whether a layer is a clone of this file; it is that or a sealed copy, and nothing else. */
static bool is_clone(const hlsnap__layer *layer, const char *path) {
    const int all = F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE, seals = fcntl(layer->fd, F_GET_SEALS);
    struct stat st, file;
    CHECK_EQ(fstat(layer->fd, &st), 0);
    CHECK_EQ(stat(path, &file), 0);
    CHECK(S_ISREG(st.st_mode) && (st.st_ino != file.st_ino || st.st_dev != file.st_dev));
    CHECK_EQ(st.st_size, file.st_size);
    CHECK_EQ(layer->pages, (uint64_t)st.st_size / P);
    CHECK_EQ(st.st_nlink, 0);
    if (seals >= 0 && (seals & all) == all) {
        CHECK(layer->sealed && layer->map && st.st_dev != file.st_dev);
        return false;
    }
    CHECK(!layer->sealed && !layer->map);
    CHECK_EQ(st.st_dev, file.st_dev);
    CHECK_EQ(st.st_mode & 0777, 0600);
    return true;
}

/* Whether a loaded snapshot is of clones; they are where they must be. */
static bool is_cloned(const hlsnap_snapshot *t) {
    const char *want = way_now == KERNEL ? getenv("EXPECT_CLONE") : way_now == COPYING && has_tmpfile() ? "1" : "0";
    const bool cloned = is_clone(t->layers[0], blob[0]);
    CHECK_EQ(is_clone(t->layers[1], blob[1]), cloned);
    CHECK_EQ(t->guard, HLSNAP_OCI_GUARD_PRIVATE);
    if (want) CHECK_EQ(cloned, *want == '1');
    return cloned;
}

/* Runs a test each way: nothing stays open. */
static void each_way(void (*test)(void)) {
    for (way_now = KERNEL; way_now < (getenv("EXPECT_CLONE") ? COPYING : NUM_WAYS); way_now++) {
        const int fds = count_fds(), bad = test_bad;
        ioctls_seen = 0;
        test();
        CHECK_EQ(count_fds(), fds);
        CHECK(ioctls_seen > 0 || !has_tmpfile()); /* else hlsnap's calls do not come by here */
        CHECK(!clone_next && !clone_made);
        if (test_bad > bad) printf("# %s\n", way_names[way_now]);
    }
}

/* ---- what a load makes ---- */

static void of_its_own_one(void) {
    hlsnap_snapshot *t[8];
    struct stat st[8];
    int i, k;
    layout_new();
    for (i = 0; i < 8; i++) {
        hlsnap_oci_desc d = desc_of(i & 4 ? HLSNAP_OCI_GUARD_PRIVATE : HLSNAP_OCI_GUARD_DEFAULT, i & 1, i & 2, i & 1 ? 3 : 0);
        t[i] = load(&d);
        CHECK_EQ(hlsnap__snapshot_check(t[i], true, &err), HLSNAP_OK);
        if (is_cloned(t[i]) && i == 0) printf("# %s: clones\n", way_names[way_now]);
        check_same(whole, t[i]);
        CHECK_EQ(fstat(t[i]->layers[0]->fd, &st[i]), 0);
        for (k = 0; k < i; k++) CHECK(st[k].st_ino != st[i].st_ino);
    }
    for (i = 0; i < 8; i++) hlsnap_snapshot_release(t[i * 3 % 8]);
}
static void of_its_own(void) { each_way(of_its_own_one); }

static void refused_for_whatever_reason(void) {
    static const int numbers[] = {EOPNOTSUPP, ENOTTY, EXDEV, EINVAL, EPERM, ENOSPC, EDQUOT, EIO, ETXTBSY, EROFS};
    const hlsnap_oci_desc d = desc_of(HLSNAP_OCI_GUARD_PRIVATE, false, false, 0);
    hlsnap_snapshot *t;
    const int fds = count_fds();
    size_t i;
    layout_new();
    for (i = 0, way_now = NONE; i < HLSNAP_COUNT(numbers); i++) {
        refusal = numbers[i];
        t = load(&d);
        CHECK(!is_cloned(t));
        check_same(whole, t);
        hlsnap_snapshot_release(t);
        CHECK_EQ(count_fds(), fds);
    }
    refusal = EOPNOTSUPP;
}

static void flip_hooked(void) {
    CHECK_EQ(sh("chmod 600 %s && printf x | dd of=%s conv=notrunc bs=1 seek=77 2>/dev/null", blob[0], blob[0]), 0);
}

/* Each extent of a file of the large layer is shared with another file. */
static void check_shared(int fd) {
    struct fiemap *map = (struct fiemap *)calloc(1, sizeof(*map) + 512 * sizeof(struct fiemap_extent));
    uint64_t bytes = 0;
    uint32_t i;
    map->fm_length = FIEMAP_MAX_OFFSET;
    map->fm_flags = FIEMAP_FLAG_SYNC;
    map->fm_extent_count = 512;
    if (ioctl(fd, FS_IOC_FIEMAP, map) != 0) test_why = "no FIEMAP here";
    else {
        for (i = 0; i < map->fm_mapped_extents; i++) {
            CHECK(map->fm_extents[i].fe_flags & FIEMAP_EXTENT_SHARED);
            bytes += map->fm_extents[i].fe_length;
        }
        CHECK(bytes >= (PAGES - 1) * P); /* one page is zero */
    }
    free(map);
}

/* A clone costs no blocks. */
static void shares_blocks(void) {
    const hlsnap_oci_desc d = desc_of(HLSNAP_OCI_GUARD_PRIVATE, false, false, 0);
    hlsnap_snapshot *t;
    way_now = KERNEL;
    t = load_new(&d);
    if (!is_cloned(t)) test_why = "no clones here";
    else check_shared(t->layers[0]->fd);
    hlsnap_snapshot_release(t);
}

/* hlsnap_oci_copy: neither do the blobs of a copied snapshot. */
static void copy_shares_blocks(void) {
    const char *expected = getenv("EXPECT_CLONE");
    char path[120];
    int fd;
    layout_new();
    way_now = KERNEL;
    CHECK_EQ(sh("rm -rf copied"), 0);
    CHECK_EQ(hlsnap_oci_copy("layout", "v2", "copied", NULL, NULL, NULL, &err), HLSNAP_OK);
    snprintf(path, sizeof(path), "copied%s", strchr(blob[0], '/'));
    fd = open(path, O_RDONLY | O_CLOEXEC);
    CHECK(fd >= 0);
    if (expected && *expected == '1') check_shared(fd);
    else test_why = "no clones here, or not known";
    close(fd);
}

/* It is the same each way; what is written to the source before the clone, or while there is none, is noticed. */
static void copied_one(void) {
    const hlsnap_oci_desc d = desc_of(HLSNAP_OCI_GUARD_NONE, false, false, 0);
    const bool clones = way_now == COPYING || (way_now == KERNEL && getenv("EXPECT_CLONE") && *getenv("EXPECT_CLONE") == '1');
    hlsnap_snapshot *t;
    hlsnap_result r;
    int i;
    for (i = 0; i < 3; i++) { /* undisturbed; written to before the first clone, of the large layer; after it */
        layout_new();
        CHECK_EQ(sh("rm -rf copied"), 0);
        if (i == 1) clone_next = flip_hooked;
        if (i == 2) clone_made = flip_hooked;
        r = hlsnap_oci_copy("layout", "v2", "copied", NULL, NULL, NULL, &err);
        clone_next = clone_made = NULL;
        if (!has_tmpfile() && i) continue; /* maybe no clone was asked for */
        if (way_now == KERNEL && !getenv("EXPECT_CLONE") && i == 2) continue;
        CHECK_EQ(r, i == 0 || (i == 2 && clones) ? HLSNAP_OK : HLSNAP_ERR_DIGEST);
        CHECK_EQ(access("copied", F_OK) == 0, r == HLSNAP_OK);
        if (r) continue;
        strcpy(dir, "copied");
        t = load(&d);
        strcpy(dir, "layout");
        check_same(whole, t);
        hlsnap_snapshot_release(t);
    }
}
static void copied(void) { each_way(copied_one); }

/* Nobody who got at the file descriptor could change a copy; a clone cannot be given a name. */
static void out_of_reach_one(void) {
    const hlsnap_oci_desc d = desc_of(HLSNAP_OCI_GUARD_PRIVATE, false, false, 0);
    hlsnap_snapshot *t = load_new(&d);
    const bool cloned = is_cloned(t);
    const int fd = t->layers[0]->fd;
    char path[40];
    void *p;
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    CHECK(linkat(AT_FDCWD, path, AT_FDCWD, "found", AT_SYMLINK_FOLLOW) != 0);
    CHECK(linkat(fd, "", AT_FDCWD, "found", AT_EMPTY_PATH) != 0);
    CHECK_EQ(access("found", F_OK), -1);
    CHECK_EQ(sh("ls -A %s/blobs/sha256 | grep -vxE '[0-9a-f]{64}' && exit 1; exit 0", dir), 0);
    if (!cloned) {
        CHECK(pwrite(fd, "x", 1, 0) < 0 && errno == EPERM);
        CHECK(ftruncate(fd, 0) != 0 && errno == EPERM);
        p = mmap(NULL, P, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        CHECK(p == MAP_FAILED && errno == EPERM);
    }
    check_same(whole, t);
    hlsnap_snapshot_release(t);
}
static void out_of_reach(void) { each_way(out_of_reach_one); }

/* ---- files that change ---- */

static void fill(int fd, off_t size) {
    char data[65536];
    off_t at;
    memset(data, 0xee, sizeof(data));
    for (at = 0; at < size; at += (off_t)sizeof(data))
        CHECK(pwrite(fd, data, (size_t)(size - at < (off_t)sizeof(data) ? size - at : (off_t)sizeof(data)), at) > 0);
}
static void overwrite(const char *path, int fd, off_t size) { (void)path, fill(fd, size); }
static void overwrite_mapped(const char *path, int fd, off_t size) {
    void *p = mmap(NULL, (size_t)size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    (void)path;
    if (!CHECK(p != MAP_FAILED)) return;
    memset(p, 0xee, (size_t)size);
    munmap(p, (size_t)size);
}
static void flip_one(const char *path, int fd, off_t size) {
    char c;
    (void)path;
    CHECK(pread(fd, &c, 1, size / 2) == 1);
    c = (char)(c ^ 0x10);
    CHECK(pwrite(fd, &c, 1, size / 2) == 1);
}
static void cut(const char *path, int fd, off_t size) { (void)path, (void)size; CHECK_EQ(ftruncate(fd, 0), 0); }
static void cut_last(const char *path, int fd, off_t size) { (void)path; CHECK_EQ(ftruncate(fd, size - (off_t)P), 0); }
static void cut_and_grown(const char *path, int fd, off_t size) {
    (void)path;
    CHECK_EQ(ftruncate(fd, size / 2), 0);
    CHECK_EQ(ftruncate(fd, size), 0);
}
static void grown(const char *path, int fd, off_t size) { (void)path, fill(fd, size + (off_t)P); }
static void longer(const char *path, int fd, off_t size) { (void)path; CHECK_EQ(ftruncate(fd, size + (off_t)P), 0); }
static void punch(const char *path, int fd, off_t size) {
    (void)path;
    CHECK_EQ(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, size / 2 & ~4095, 16384), 0);
    CHECK_EQ(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 8192), 0);
}
static void cloned_over(const char *path, int fd, off_t size) { /* the other way round: the blob gets another file's blocks */
    const int other = open("other", O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    (void)path;
    fill(other, size);
    if (ioctl(fd, FICLONE, other) != 0) copy_file(fd, other);
    close(other);
}
static void new_file(const char *path, int fd, off_t size) {
    const int other = open("other", O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    (void)fd;
    fill(other, size);
    close(other);
    CHECK_EQ(rename("other", path), 0);
}
static void gone(const char *path, int fd, off_t size) { (void)fd, (void)size; CHECK_EQ(unlink(path), 0); }

typedef struct change {
    const char *name;
    void (*make)(const char *path, int fd, off_t size);
    hlsnap_result next;    /* what the next load says */
    hlsnap_result between; /* what a load says in which it happens after the file was opened, and before it was cloned */
} change;
static const change changes[] = {
    {"overwritten", overwrite, HLSNAP_ERR_DIGEST, HLSNAP_ERR_DIGEST},
    {"overwritten by a mapping", overwrite_mapped, HLSNAP_ERR_DIGEST, HLSNAP_ERR_DIGEST},
    {"one bit", flip_one, HLSNAP_ERR_DIGEST, HLSNAP_ERR_DIGEST},
    {"cut to nothing", cut, HLSNAP_ERR_SIZE, HLSNAP_ERR_CHANGED},
    {"cut by a page", cut_last, HLSNAP_ERR_SIZE, HLSNAP_ERR_CHANGED},
    {"cut and grown", cut_and_grown, HLSNAP_ERR_DIGEST, HLSNAP_ERR_DIGEST},
    {"overwritten and grown", grown, HLSNAP_ERR_SIZE, HLSNAP_ERR_DIGEST},
    {"longer", longer, HLSNAP_ERR_SIZE, HLSNAP_OK},
    {"punched", punch, HLSNAP_ERR_DIGEST, HLSNAP_ERR_DIGEST},
    {"cloned over", cloned_over, HLSNAP_ERR_DIGEST, HLSNAP_ERR_DIGEST},
    {"another file", new_file, HLSNAP_ERR_DIGEST, HLSNAP_OK},
    {"gone", gone, HLSNAP_ERR_FILE, HLSNAP_OK},
};

static void change_file(const change *c, const char *path) {
    const int fd = open(path, O_RDWR | O_CLOEXEC);
    struct stat st;
    CHECK(fd >= 0 && fstat(fd, &st) == 0);
    if (fd >= 0) c->make(path, fd, st.st_size);
    close(fd);
}

/* The layers as sandboxes have them: mapped. */
static void map_layers(const hlsnap_snapshot *t, const uint8_t *map[2]) {
    uint32_t i;
    for (i = 0; i < 2; i++) {
        void *p = mmap(NULL, t->layers[i]->pages * P, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_NORESERVE, t->layers[i]->fd, 0);
        CHECK(p != MAP_FAILED);
        map[i] = (const uint8_t *)p;
    }
}

static void check_maps(const hlsnap_snapshot *t, const uint8_t *const map[2]) {
    uint8_t page[P];
    uint32_t i, k, different = 0;
    for (i = 0; i < t->num_extents; i++)
        for (k = 0; k < t->extents[i].pages; k++) {
            page_of(whole, t->extents[i].page + k, page);
            different += memcmp(map[t->extents[i].layer] + (t->extents[i].layer_page + k) * P, page, P) != 0;
        }
    CHECK_EQ(different, 0);
}

/* As often as it is read, also from the disk and not from the cache, a loaded snapshot is what it was; the next load says what
   became of the file; and it can be saved and loaded again. */
static void change_beneath(const change *c, bool unverified) {
    hlsnap_oci_desc d = desc_of(HLSNAP_OCI_GUARD_PRIVATE, unverified, false, 0);
    hlsnap_snapshot *t = load_new(&d), *again = NULL;
    const uint8_t *map[2];
    uint32_t i;
    is_cloned(t);
    map_layers(t, map);
    if (!unverified) check_maps(t, map); /* else it has not been read at all */
    change_file(c, blob[0]);
    change_file(c, blob[1]);
    check_maps(t, map);
    check_same(whole, t);
    for (i = 0; i < 2; i++) {
        munmap(hlsnap__unconst(map[i]), t->layers[i]->pages * P);
        CHECK_EQ(posix_fadvise(t->layers[i]->fd, 0, 0, POSIX_FADV_DONTNEED), 0);
    }
    check_same(whole, t);
    d = desc_of(HLSNAP_OCI_GUARD_PRIVATE, false, false, 0);
    CHECK_EQ(try_load(&d, &again), c->next);
    CHECK(!again && (c->next == HLSNAP_ERR_FILE || strstr(err.msg, strrchr(blob[0], '/') + 1)));
    CHECK_EQ(hlsnap_oci_save(dir, "v2", t, NULL, NULL, &err), HLSNAP_OK);
    again = load(&d);
    if (again) check_same(whole, again);
    check_same(whole, t);
    hlsnap_snapshot_release(again);
    hlsnap_snapshot_release(t);
}

static void files_change_one(void) {
    size_t i;
    for (i = 0; i < 2 * HLSNAP_COUNT(changes); i++) {
        const int bad = test_bad;
        change_beneath(&changes[i / 2], i % 2);
        if (test_bad > bad) printf("# %s%s\n", changes[i / 2].name, i % 2 ? ", loaded unverified" : "");
    }
}
static void files_change(void) { each_way(files_change_one); }

static const change *hooked;
static void change_hooked(void) { change_file(hooked, blob[0]); }

/* A change in the middle of a load: before the clone is made it is seen, after that it is nothing. */
static void change_amid(const change *c, bool late, bool later) {
    const hlsnap_oci_desc d = desc_of(HLSNAP_OCI_GUARD_PRIVATE, false, later, 0);
    hlsnap_snapshot *t = NULL;
    hlsnap_result r;
    layout_new();
    hooked = c;
    if (late) clone_made = change_hooked;
    else clone_next = change_hooked;
    r = try_load(&d, &t);
    if (!r) r = hlsnap__snapshot_check(t, true, &err);
    CHECK(!clone_next && !clone_made);
    if (late && way_now != NONE && (!t || !t->layers[0]->sealed)) CHECK_EQ(r, HLSNAP_OK);
    else CHECK_EQ(r, c->between);
    if (!r) check_same(whole, t);
    hlsnap_snapshot_release(t);
}

static void changes_amid_one(void) {
    size_t i;
    for (i = 0; i < 4 * HLSNAP_COUNT(changes); i++) {
        const int bad = test_bad;
        if (way_now == KERNEL && i == 0) {
            const hlsnap_oci_desc d = desc_of(HLSNAP_OCI_GUARD_PRIVATE, false, false, 0);
            hlsnap_snapshot *t = load_new(&d);
            const bool cloned = is_cloned(t);
            hlsnap_snapshot_release(t);
            if (!cloned) return; /* NONE does the same */
        }
        change_amid(&changes[i / 4], i & 1, i & 2);
        if (test_bad > bad) printf("# %s, %s%s\n", changes[i / 4].name, i & 1 ? "after" : "before", i & 2 ? ", verified later" : "");
    }
}
static void changes_amid(void) { each_way(changes_amid_one); }

/* Unverified, but never with less than the pages that it shows. */
static void cut_amid_unverified_one(void) {
    const hlsnap_oci_desc d = desc_of(HLSNAP_OCI_GUARD_PRIVATE, true, false, 0);
    hlsnap_snapshot *t;
    size_t i;
    for (i = 3; i < 5; i++) {
        layout_new();
        hooked = &changes[i];
        clone_next = change_hooked;
        CHECK_EQ(try_load(&d, &t), HLSNAP_ERR_CHANGED);
        hlsnap_snapshot_release(t);
    }
}
static void cut_amid_unverified(void) { each_way(cut_amid_unverified_one); }

/* ---- verification while it is used ---- */

static void verified_later_one(void) {
    static const uint32_t at[] = {0, 65535, 65536, 2000000, (PAGES - 2) * 4096 + 77};
    hlsnap_snapshot *t;
    size_t i;
    layout_new();
    for (i = 0; i < 2 * HLSNAP_COUNT(at); i++) {
        const hlsnap_oci_desc d = desc_of(HLSNAP_OCI_GUARD_PRIVATE, false, true, i % 2 ? 3 : 0);
        const int fd = open(blob[0], O_RDWR | O_CLOEXEC);
        const int bad = test_bad;
        uint8_t byte, other;
        hlsnap_result r;
        char want[40];
        CHECK_EQ(pread(fd, &byte, 1, at[i / 2]), 1);
        other = byte ^ 0x40;
        CHECK_EQ(pwrite(fd, &other, 1, at[i / 2]), 1);
        if (try_load(&d, &t)) {
            CHECK_EQ(err.code, HLSNAP_ERR_DIGEST); /* the thread was quicker */
        } else {
            is_cloned(t);
            CHECK_EQ(pwrite(fd, &byte, 1, at[i / 2]), 1); /* a clone has the other one */
            r = hlsnap__snapshot_check(t, true, &err);
            CHECK(r == HLSNAP_ERR_DIGEST || (t->layers[0]->sealed && r == HLSNAP_ERR_CHANGED));
            CHECK_EQ(hlsnap__snapshot_check(t, false, &err), r);
            CHECK_EQ(hlsnap_oci_save(dir, "no", t, NULL, NULL, &err), r);
        }
        snprintf(want, sizeof(want), "layer 0, chunk %u ", at[i / 2] / 65536);
        CHECK(err.code != HLSNAP_ERR_DIGEST || strstr(err.msg, want) != NULL);
        if (test_bad > bad) printf("# byte %u: %d: %s\n", at[i / 2], err.code, err.msg);
        hlsnap_snapshot_release(t);
        CHECK_EQ(pwrite(fd, &byte, 1, at[i / 2]), 1);
        close(fd);
    }
    for (i = 0; i < 20; i++) { /* released before it is verified */
        const hlsnap_oci_desc d = desc_of(HLSNAP_OCI_GUARD_PRIVATE, false, true, (uint32_t)i % 4);
        t = load(&d);
        if (i % 4 == 0) CHECK_EQ(hlsnap__snapshot_check(t, true, &err), HLSNAP_OK);
        if (i % 4 == 0) check_same(whole, t);
        hlsnap_snapshot_release(t);
    }
}
static void verified_later(void) { each_way(verified_later_one); }

/* ---- others ---- */

/* Who has the file itself in use, and looks at it, sees nothing of another one's clone, and all of a change. */
static void watchers_see_nothing_one(void) {
    static const hlsnap_oci_guard guards[] = {HLSNAP_OCI_GUARD_LEASE, HLSNAP_OCI_GUARD_DETECT};
    const hlsnap_oci_desc d = desc_of(HLSNAP_OCI_GUARD_PRIVATE, false, false, 0);
    hlsnap_snapshot *watching, *t;
    size_t i;
    layout_new();
    for (i = 0; i < HLSNAP_COUNT(guards); i++) {
        const hlsnap_oci_desc w = desc_of(guards[i], false, false, 0);
        watching = load(&w);
        CHECK_EQ(watching->guard, guards[i]);
        t = load(&d);
        is_cloned(t);
        CHECK_EQ(hlsnap__snapshot_check(watching, true, &err), HLSNAP_OK);
        if (guards[i] == HLSNAP_OCI_GUARD_DETECT) { /* at a lease, it would have to wait */
            change_file(&changes[2], blob[0]);
            CHECK_EQ(hlsnap__snapshot_check(watching, true, &err), HLSNAP_ERR_CHANGED);
        }
        check_same(whole, t);
        hlsnap_snapshot_release(watching);
        hlsnap_snapshot_release(t);
    }
}
static void watchers_see_nothing(void) { each_way(watchers_see_nothing_one); }

/* A lease that is not to be had becomes a clone, too. */
static void instead_of_a_lease_one(void) {
    const hlsnap_oci_desc d = desc_of(HLSNAP_OCI_GUARD_LEASE, false, false, 0);
    hlsnap_snapshot *t;
    int fd;
    layout_new();
    fd = open(blob[1], O_RDWR | O_CLOEXEC); /* a writer of one of them */
    t = load(&d);
    is_cloned(t);
    fill(fd, 40 * (off_t)P);
    check_same(whole, t);
    close(fd);
    hlsnap_snapshot_release(t);
}
static void instead_of_a_lease(void) { each_way(instead_of_a_lease_one); }

/* A process that may write no large files, or none at all, gets an error or what it asked for, never a signal. */
static void file_size_limit_one(void) {
    static const rlim_t limits[] = {0, 1, 4096, 65536, PAGES * P - 1, PAGES * P};
    const hlsnap_oci_desc d = desc_of(HLSNAP_OCI_GUARD_PRIVATE, false, false, 0);
    hlsnap_snapshot *t;
    size_t i;
    int status;
    layout_new();
    ioctls_seen++; /* in the children */
    for (i = 0; i < HLSNAP_COUNT(limits) && way_now != COPYING; i++) {
        pid_t pid;
        fflush(stdout);
        pid = fork();
        if (pid == 0) {
            struct rlimit limit;
            hlsnap_result r;
            limit.rlim_cur = limit.rlim_max = limits[i];
            if (setrlimit(RLIMIT_FSIZE, &limit) != 0) _exit(9);
            test_bad = 0;
            r = try_load(&d, &t);
            if (!r) check_same(whole, t);
            _exit(test_bad ? 8 : r == HLSNAP_OK ? 0 : r == HLSNAP_ERR_OS && err.os_errno == EFBIG ? 1 : 7);
        }
        CHECK_EQ(waitpid(pid, &status, 0), pid);
        if (!CHECK(WIFEXITED(status) && WEXITSTATUS(status) <= (limits[i] < PAGES * P)))
            printf("# limit %lu: status 0x%x\n", (unsigned long)limits[i], (unsigned)status);
    }
}
static void file_size_limit(void) { each_way(file_size_limit_one); }

static const test_row tests[] = {TEST(of_its_own), TEST(refused_for_whatever_reason), TEST(shares_blocks),
                                 TEST(copy_shares_blocks), TEST(copied), TEST(out_of_reach),
                                 TEST(files_change), TEST(changes_amid), TEST(cut_amid_unverified), TEST(verified_later),
                                 TEST(watchers_see_nothing), TEST(instead_of_a_lease), TEST(file_size_limit)};

int main(int argc, char **argv) {
    const char *tmp = getenv("TMPDIR");
    char home[200];
    int r;
    snprintf(home, sizeof(home), "%.150s/hlsnap-clone-XXXXXX", tmp ? tmp : "/tmp");
    if (!mkdtemp(home) || chdir(home) != 0) return 1;
    setvbuf(stdout, NULL, _IOLBF, 0); /* what failed is said also by a test that then crashes */
    template_make();
    r = TEST_MAIN(tests, argc, argv);
    hlsnap_snapshot_release(whole);
    if (chdir("/") == 0) sh("rm -rf %s", home);
    return r;
}

/* test_store.c - sandboxes started from layouts: what runs, what is shared, and what happens when the files change under
   them. Needs /dev/kvm and cJSON, and guest_store.elf in GUEST_DIR. Layouts are made in $TMPDIR or /tmp. */
#include <pthread.h>
#include <stddef.h>
#include <unistd.h>
static ssize_t held_pread(int fd, void *to, size_t n, off_t at);
#define pread(...) held_pread(__VA_ARGS__)
static void *counted_malloc(size_t n);
static void counted_free(void *p);
#define HLSNAP_MALLOC(n) counted_malloc(n)
#define HLSNAP_FREE(p) counted_free(p)
#define HLSNAP_IMPLEMENTATION
#include "hlsnap.h"
#include "hlsnap_kvm.h"
#include "hlsnap_oci.h"
#include "test.h"
#include <dirent.h>
#include <stdio.h>
#include <sys/wait.h>

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

static hlsnap_error err;
static char dir[200];
static bool is_slow; /* SVM=1: an emulated machine, which hashes a megabyte in a second */

/* Every allocation is counted; the one numbered fail_at fails. */
static long allocations, fail_at, live;
static void *counted_malloc(size_t n) {
    void *p = ++allocations == fail_at ? NULL : malloc(n);
    live += p != NULL;
    return p;
}
static void counted_free(void *p) {
    live -= p != NULL;
    free(p);
}

/* While it is held, threads other than the first read no file. */
static pthread_t first_thread;
static int32_t held;
#undef pread
static ssize_t held_pread(int fd, void *to, size_t n, off_t at) {
    while (__atomic_load_n(&held, __ATOMIC_RELAXED) && !pthread_equal(pthread_self(), first_thread)) usleep(1000);
    return pread(fd, to, n, at);
}

static hlsnap_sandbox *start(uint64_t heap) {
    hlsnap_guest_desc guest = HLSNAP_ZERO;
    hlsnap_sandbox_desc desc = HLSNAP_ZERO;
    hlsnap_sandbox *sb = NULL;
    char path[512];
    snprintf(path, sizeof(path), "%s/guest_store.elf", getenv("GUEST_DIR") ? getenv("GUEST_DIR") : ".");
    guest.path = path;
    guest.heap_size = heap;
    desc.hypervisor = hlsnap_kvm();
    if (!CHECK_EQ(hlsnap_sandbox_create(&guest, &desc, &sb, &err), HLSNAP_OK)) printf("# %s\n", err.msg);
    return sb;
}

static hlsnap_sandbox *start_from(hlsnap_snapshot *s) {
    hlsnap_sandbox_desc desc = HLSNAP_ZERO;
    hlsnap_sandbox *sb = NULL;
    desc.hypervisor = hlsnap_kvm();
    if (!CHECK_EQ(hlsnap_sandbox_create_from(s, &desc, &sb, &err), HLSNAP_OK)) printf("# %s\n", err.msg);
    return sb;
}

static hlsnap_result touch(hlsnap_sandbox *sb, uint32_t pages, uint32_t value) {
    return hlsnap_sandbox_call(sb, "touch", HLSNAP_ARGS(hlsnap_u32(pages), hlsnap_u32(value)), NULL, &err);
}

static uint32_t sum(hlsnap_sandbox *sb, uint32_t pages) {
    hlsnap_value out = HLSNAP_ZERO;
    CHECK_EQ(hlsnap_sandbox_call(sb, "sum", HLSNAP_ARGS(hlsnap_u32(pages)), &out, &err), HLSNAP_OK);
    return out.as.u32;
}

static void dir_make(void) {
    const char *tmp = getenv("TMPDIR");
    snprintf(dir, sizeof(dir), "%.150s/hlsnap_store.XXXXXX", tmp ? tmp : "/tmp");
    CHECK(mkdtemp(dir) != NULL);
}

/* A layout that holds a guest whose first `pages` heap pages are `value`. */
static void saved(uint32_t pages, uint32_t value) {
    hlsnap_sandbox *sb = start(16u << 20);
    hlsnap_snapshot *s = NULL;
    dir_make();
    CHECK_EQ(touch(sb, pages, value), HLSNAP_OK);
    CHECK_EQ(hlsnap_sandbox_snapshot(sb, &s, &err), HLSNAP_OK);
    CHECK_EQ(hlsnap_oci_save(dir, "v1", s, NULL, NULL, &err), HLSNAP_OK);
    hlsnap_snapshot_release(s);
    hlsnap_sandbox_destroy(sb);
}

static void removed(void) {
    char command[220];
    snprintf(command, sizeof(command), "rm -rf %s", dir);
    CHECK_EQ(system(command), 0);
}

static hlsnap_snapshot *load(hlsnap_oci_guard guard) {
    hlsnap_oci_desc oci = HLSNAP_ZERO;
    hlsnap_snapshot *s = NULL;
    oci.guard = guard;
    if (!CHECK_EQ(hlsnap_oci_load(dir, "v1", &oci, &s, NULL, &err), HLSNAP_OK)) printf("# %s\n", err.msg);
    return s;
}

/* The path of the largest blob: the memory layer. */
static const char *memory_blob(off_t *size) {
    static char best[500];
    char path[500];
    struct dirent *e;
    struct stat st;
    DIR *d;
    snprintf(path, sizeof(path), "%s/blobs/sha256", dir);
    d = opendir(path);
    *size = 0;
    while (d && (e = readdir(d))) {
        snprintf(path, sizeof(path), "%s/blobs/sha256/%.255s", dir, e->d_name);
        if (stat(path, &st) || !S_ISREG(st.st_mode) || st.st_size <= *size) continue;
        *size = st.st_size;
        memcpy(best, path, sizeof(best));
    }
    if (d) closedir(d);
    return best;
}

/* ---- tests ---- */

/* What the kernel says, not CPUID. */
static const char *cpu_vendor(void) {
    static char vendor[64];
    char line[256];
    FILE *f = fopen("/proc/cpuinfo", "r");
    while (f && fgets(line, sizeof(line), f))
        if (sscanf(line, "vendor_id : %63[^\n]", vendor) == 1) break;
    if (f) fclose(f);
    return vendor;
}

/* Both guards: start, run, change, snapshot, go back, save the changed one, and start from that. */
static void full_circle(void) {
    static const hlsnap_oci_guard guards[] = {HLSNAP_OCI_GUARD_PRIVATE, HLSNAP_OCI_GUARD_NONE};
    size_t i;
    for (i = 0; i < HLSNAP_COUNT(guards); i++) {
        hlsnap_snapshot *s, *changed = NULL, *again = NULL;
        hlsnap_snapshot_info info;
        hlsnap_sandbox *sb, *other;
        saved(200, 3);
        s = load(guards[i]);
        hlsnap_snapshot_get_info(s, &info);
        CHECK_EQ(info.guard, guards[i]);
        CHECK_EQ(info.layers, 1);
        CHECK_STR(info.hypervisor, "kvm");
        CHECK_STR(info.cpu_vendor, cpu_vendor());
        sb = start_from(s);
        other = start_from(s);
        CHECK_EQ(sum(sb, 200), 600);
        CHECK_EQ(touch(sb, 100, 5), HLSNAP_OK);
        CHECK_EQ(sum(sb, 200), 800);
        CHECK_EQ(sum(other, 200), 600);
        CHECK_EQ(hlsnap_sandbox_snapshot(sb, &changed, &err), HLSNAP_OK);
        hlsnap_snapshot_get_info(changed, &info);
        CHECK_EQ(info.layers, 2);
        CHECK_EQ(hlsnap_sandbox_restore(sb, s, &err), HLSNAP_OK);
        CHECK_EQ(sum(sb, 200), 600);
        CHECK_EQ(hlsnap_sandbox_restore(other, changed, &err), HLSNAP_OK);
        CHECK_EQ(sum(other, 200), 800);
        CHECK_EQ(hlsnap_oci_save(dir, "v1", changed, NULL, NULL, &err), HLSNAP_OK);
        again = load(guards[i]);
        CHECK_EQ(hlsnap_sandbox_restore(sb, again, &err), HLSNAP_OK);
        CHECK_EQ(sum(sb, 200), 800);
        hlsnap_sandbox_destroy(sb);
        hlsnap_sandbox_destroy(other);
        hlsnap_snapshot_release(s);
        hlsnap_snapshot_release(changed);
        hlsnap_snapshot_release(again);
        removed();
    }
}

/* The memory layer holds what was touched and hardly more. */
static void size_on_disk(void) {
    const uint32_t pages = is_slow ? 1000 : 2000;
    off_t size;
    saved(pages, 1);
    memory_blob(&size);
    printf("# %u heap pages touched, %ld stored\n", pages, (long)size / 4096);
    CHECK(size / 4096 >= pages && (double)size <= 1.05 * 4096 * pages);
    removed();
}

static uint64_t disk_use(void) {
    uint64_t sum = 0;
    char path[500];
    struct dirent *e;
    struct stat st;
    DIR *d;
    snprintf(path, sizeof(path), "%s/blobs/sha256", dir);
    d = opendir(path);
    while (d && (e = readdir(d))) {
        snprintf(path, sizeof(path), "%s/blobs/sha256/%.255s", dir, e->d_name);
        if (stat(path, &st) == 0 && S_ISREG(st.st_mode)) sum += (uint64_t)st.st_size;
    }
    if (d) closedir(d);
    return sum;
}

/* A heap of 256 MiB, nearly all of it in use, saved, and loaded by somebody; 1 MiB of it changed and saved again. */
static void delta_on_disk(void) {
    const uint32_t heap = is_slow ? 16u << 20 : 256u << 20, pages = is_slow ? 1536 : 65024, dirty = 256;
    hlsnap_sandbox *sb = start(heap);
    hlsnap_snapshot *s = NULL, *next = NULL, *again = NULL;
    hlsnap_oci_info info;
    uint64_t before;
    dir_make();
    CHECK_EQ(touch(sb, pages, 3), HLSNAP_OK);
    CHECK_EQ(hlsnap_sandbox_snapshot(sb, &s, &err), HLSNAP_OK);
    CHECK_EQ(hlsnap_oci_save(dir, "v1", s, NULL, NULL, &err), HLSNAP_OK);
    hlsnap_sandbox_destroy(sb);
    hlsnap_snapshot_release(s);
    before = disk_use();
    CHECK(before >= pages * 4096ull);
    s = load(HLSNAP_OCI_GUARD_NONE);
    sb = start_from(s);
    CHECK_EQ(touch(sb, dirty, 4), HLSNAP_OK);
    CHECK_EQ(hlsnap_sandbox_snapshot(sb, &next, &err), HLSNAP_OK);
    CHECK_EQ(hlsnap_oci_save(dir, "v2", next, NULL, NULL, &err), HLSNAP_OK);
    printf("# 1 MiB of %u dirtied: %llu new bytes\n", pages >> 8, (unsigned long long)(disk_use() - before));
    CHECK(disk_use() - before <= (11u << 20) / 10 + 16384); /* 1.1 MiB, and what describes it */
    CHECK_EQ(hlsnap_oci_get_info(dir, "v2", &info, &err), HLSNAP_OK);
    CHECK_EQ(info.layers, 2);
    hlsnap_sandbox_destroy(sb);
    hlsnap_snapshot_release(s);
    hlsnap_snapshot_release(next);
    CHECK_EQ(hlsnap_oci_load(dir, "v2", NULL, &again, NULL, &err), HLSNAP_OK);
    sb = start_from(again);
    CHECK_EQ(sum(sb, pages), dirty * 4 + (pages - dirty) * 3);
    hlsnap_sandbox_destroy(sb);
    hlsnap_snapshot_release(again);
    removed();
}

/* Calls everything that reads or writes guest memory; nothing may crash, and errors are of the expected kind. */
static void exercise(hlsnap_sandbox *sb, hlsnap_snapshot *s, uint64_t heap) {
    hlsnap_snapshot *taken = NULL;
    uint32_t word = 7;
    hlsnap_result r = touch(sb, 200, 9);
    CHECK(r == HLSNAP_OK || r == HLSNAP_ERR_CHANGED || r == HLSNAP_ERR_FAULT || r == HLSNAP_ERR_ABORT || r == HLSNAP_ERR_STATE);
    r = hlsnap_sandbox_read(sb, heap + 4096 * 50, &word, sizeof(word), &err);
    CHECK(r == HLSNAP_OK || r == HLSNAP_ERR_CHANGED || r == HLSNAP_ERR_STATE);
    r = hlsnap_sandbox_write(sb, heap + 4096 * 51, &word, sizeof(word), &err);
    CHECK(r == HLSNAP_OK || r == HLSNAP_ERR_CHANGED || r == HLSNAP_ERR_STATE);
    r = hlsnap_sandbox_snapshot(sb, &taken, &err);
    CHECK(r == HLSNAP_OK || r == HLSNAP_ERR_CHANGED || r == HLSNAP_ERR_OS || r == HLSNAP_ERR_STATE);
    hlsnap_snapshot_release(taken);
    r = hlsnap_sandbox_restore(sb, s, &err);
    CHECK(r == HLSNAP_OK || r == HLSNAP_ERR_CHANGED || r == HLSNAP_ERR_OS);
    if (hlsnap_sandbox_get_state(sb) == HLSNAP_READY) touch(sb, 200, 10);
    r = hlsnap_sandbox_restore(sb, s, &err);
    CHECK(r == HLSNAP_OK || r == HLSNAP_ERR_CHANGED || r == HLSNAP_ERR_OS);
}

typedef enum attack { CUT, CUT_HALF, UNLINK, OVERWRITE, PUNCH, RENAME, OPEN_TRUNC, NUM_ATTACKS } attack_kind;

/* What somebody does to the file. One who asks for it by the book has to wait where there is a lease: here he goes away. */
static void harm(const char *blob, off_t size, attack_kind attack) {
    char other[520];
    int fd = -1;
    snprintf(other, sizeof(other), "%s.moved", blob);
    if (attack == UNLINK) CHECK_EQ(unlink(blob), 0);
    if (attack == RENAME) CHECK_EQ(rename(blob, other), 0);
    if (attack == OPEN_TRUNC) fd = open(blob, O_RDONLY | O_TRUNC);
    if (attack == CUT || attack == CUT_HALF || attack == OVERWRITE || attack == PUNCH) fd = open(blob, O_WRONLY | O_NONBLOCK);
    if (fd >= 0 && attack == CUT) CHECK_EQ(ftruncate(fd, 0), 0);
    if (fd >= 0 && attack == CUT_HALF) CHECK_EQ(ftruncate(fd, size / 2), 0);
    if (fd >= 0 && attack == OVERWRITE) CHECK_EQ(pwrite(fd, "changed", 7, size / 2), 7);
    if (fd >= 0 && attack == PUNCH) CHECK_EQ(syscall(SYS_fallocate, fd, 3, (off_t)(size / 2 & ~4095), (off_t)8192), 0);
    if (fd >= 0) close(fd);
}

/* The blob is cut, punched, overwritten, moved or removed under running sandboxes. */
static void files_change(void) {
    static const hlsnap_oci_guard guards[] = {HLSNAP_OCI_GUARD_PRIVATE, HLSNAP_OCI_GUARD_NONE, HLSNAP_OCI_GUARD_DETECT, HLSNAP_OCI_GUARD_LEASE};
    size_t i, attack;
    for (i = 0; i < HLSNAP_COUNT(guards); i++)
        for (attack = 0; attack < NUM_ATTACKS; attack++) {
            const bool watched = guards[i] == HLSNAP_OCI_GUARD_DETECT || guards[i] == HLSNAP_OCI_GUARD_LEASE;
            hlsnap_snapshot *s;
            hlsnap_sandbox *clean, *used;
            const char *blob;
            uint64_t heap;
            off_t size;
            saved(200, 3);
            s = load(guards[i]);
            clean = start_from(s);
            used = start_from(s);
            heap = hlsnap__layout_find(&used->memory.layout, HLSNAP__HEAP)->gva;
            CHECK_EQ(touch(used, 150, 8), HLSNAP_OK);
            blob = memory_blob(&size);
            harm(blob, size, (attack_kind)attack);
            if (watched && attack != UNLINK && attack != RENAME) { /* before a wrong result counts; for ever; and no way back */
                hlsnap_value out;
                CHECK_EQ(hlsnap_sandbox_call(clean, "sum", HLSNAP_ARGS(hlsnap_u32(200)), &out, &err), HLSNAP_ERR_CHANGED);
                CHECK_EQ(hlsnap_sandbox_get_state(clean), HLSNAP_POISONED);
                CHECK_EQ(hlsnap_sandbox_restore(clean, s, &err), HLSNAP_ERR_CHANGED);
                CHECK_EQ(hlsnap_sandbox_restore(used, s, &err), HLSNAP_ERR_CHANGED);
                harm(blob, size, (attack_kind)attack); /* who waited gets his way, and still nothing worse happens */
            }
            if (guards[i] == HLSNAP_OCI_GUARD_PRIVATE || attack == UNLINK || (attack == RENAME && !watched)) {
                CHECK_EQ(sum(clean, 200), 600);
                CHECK_EQ(sum(used, 200), 150 * 8 + 50 * 3);
                CHECK_EQ(hlsnap_sandbox_restore(used, s, &err), HLSNAP_OK);
                CHECK_EQ(sum(used, 200), 600);
            }
            exercise(clean, s, heap);
            exercise(used, s, heap);
            if (guards[i] == HLSNAP_OCI_GUARD_NONE && attack == CUT) { /* nothing is left to go back to, and it says so */
                CHECK_EQ(hlsnap_sandbox_restore(used, s, &err), HLSNAP_ERR_CHANGED);
                CHECK_EQ(hlsnap_sandbox_get_state(used), HLSNAP_POISONED);
            }
            hlsnap_sandbox_destroy(clean);
            hlsnap_sandbox_destroy(used);
            hlsnap_snapshot_release(s);
            removed();
        }
}

static int lines;
static void on_log(int level, const char *text, size_t n, void *user) {
    (void)level, (void)text, (void)n, (void)user;
    lines++;
}

/* Whoever loads says whether pages are learned; not where a file could be cut. */
static void learned_of_loaded(void) {
    int guard, on;
    saved(300, 5);
    for (guard = HLSNAP_OCI_GUARD_NONE; guard <= HLSNAP_OCI_GUARD_PRIVATE; guard++)
        for (on = 0; on < 2; on++) {
            hlsnap_oci_desc oci = HLSNAP_ZERO;
            hlsnap_snapshot *s = NULL;
            hlsnap_snapshot_info info;
            hlsnap_stats stats;
            bool safe;
            hlsnap_sandbox *sb;
            oci.guard = (hlsnap_oci_guard)guard;
            oci.prefault = on ? HLSNAP_PREFAULT_LEARN : HLSNAP_PREFAULT_OFF;
            CHECK_EQ(hlsnap_oci_load(dir, "v1", &oci, &s, NULL, &err), HLSNAP_OK);
            hlsnap_snapshot_get_info(s, &info);
            CHECK(info.prefault == oci.prefault && info.learned_pages == 0);
            sb = start_from(s);
            CHECK_EQ(touch(sb, 200, 9), HLSNAP_OK);
            hlsnap_sandbox_destroy(sb);
            hlsnap_snapshot_get_info(s, &info);
            CHECK(on ? info.learned_pages >= 200 : info.learned_pages == 0);
            sb = start_from(s);
            hlsnap_sandbox_get_stats(sb, &stats);
            safe = guard == HLSNAP_OCI_GUARD_PRIVATE && s->layers[0]->sealed; /* not a clone, where the file system makes some */
            CHECK_EQ(stats.prefaulted_pages, safe ? info.learned_pages : 0);
            CHECK_EQ(sum(sb, 300), 1500);
            CHECK_EQ(touch(sb, 100, 8), HLSNAP_OK);
            CHECK_EQ(hlsnap_sandbox_restore(sb, s, &err), HLSNAP_OK);
            CHECK_EQ(sum(sb, 300), 1500);
            hlsnap_sandbox_destroy(sb);
            hlsnap_snapshot_release(s);
        }
    removed();
}

/* Verified while the guest runs already: nothing that it does is seen before, and nothing at all when a byte is wrong. */
static void verified_later(void) {
    hlsnap_sandbox_desc desc = HLSNAP_ZERO;
    hlsnap_oci_desc oci = HLSNAP_ZERO;
    const uint32_t pages = is_slow ? 300 : 3000;
    int wrong, guard;
    first_thread = pthread_self();
    desc.hypervisor = hlsnap_kvm();
    desc.log = on_log;
    oci.verify_later = true;
    for (guard = HLSNAP_OCI_GUARD_NONE; guard <= HLSNAP_OCI_GUARD_PRIVATE; guard++)
        for (wrong = 0; wrong < 2; wrong++) {
            hlsnap_snapshot *s = NULL, *next = NULL;
            hlsnap_sandbox *sb = NULL;
            off_t size;
            char byte[4];
            saved(pages, 5);
            oci.guard = (hlsnap_oci_guard)guard;
            lines = 0;
            if (wrong) harm(memory_blob(&size), (off_t)pages * 4096 * 15 / 8, OVERWRITE);
            held = 1; /* so that load and start come first */
            CHECK_EQ(hlsnap_oci_load(dir, "v1", &oci, &s, NULL, &err), HLSNAP_OK);
            if (s && !CHECK_EQ(hlsnap_sandbox_create_from(s, &desc, &sb, &err), HLSNAP_OK)) printf("# %s\n", err.msg);
            __atomic_store_n(&held, 0, __ATOMIC_RELAXED);
            if (sb) {
                CHECK_EQ(hlsnap_sandbox_call(sb, "say", HLSNAP_NO_ARGS, NULL, &err), wrong ? HLSNAP_ERR_DIGEST : HLSNAP_OK);
                CHECK_EQ(lines, !wrong);
                CHECK_EQ(hlsnap_sandbox_get_state(sb), wrong ? HLSNAP_POISONED : HLSNAP_READY);
                CHECK_EQ(hlsnap_sandbox_restore(sb, s, &err), wrong ? HLSNAP_ERR_DIGEST : HLSNAP_OK);
                if (!wrong) CHECK_EQ(sum(sb, pages), pages * 5);
                CHECK_EQ(hlsnap_sandbox_read(sb, hlsnap__layout_find(&sb->memory.layout, HLSNAP__TEXT)->gva, byte, 4, &err),
                         wrong ? HLSNAP_ERR_STATE : HLSNAP_OK);
                CHECK_EQ(hlsnap_sandbox_snapshot(sb, &next, &err), wrong ? HLSNAP_ERR_STATE : HLSNAP_OK);
            }
            hlsnap_snapshot_release(next);
            hlsnap_sandbox_destroy(sb);
            hlsnap_snapshot_release(s);
            removed();
        }
}

static void *cancel_soon(void *interrupt) {
    while (!hlsnap_interrupt_cancel((hlsnap_interrupt *)interrupt)) usleep(1000);
    return NULL;
}

/* A call that waits for the verification ends by its limit, or a cancel; what it did is not seen, and a restore mends it. */
static void limits_hold_while_verified(void) {
    hlsnap_sandbox_desc desc = HLSNAP_ZERO;
    hlsnap_oci_desc oci = HLSNAP_ZERO;
    hlsnap_snapshot *s = NULL;
    hlsnap_sandbox *sb = NULL;
    hlsnap_interrupt *interrupt;
    pthread_t canceller;
    saved(100, 5);
    first_thread = pthread_self();
    held = 1;
    alarm(60); /* ends the test where it waits for ever */
    desc.hypervisor = hlsnap_kvm();
    desc.timeout_ns = 50000000;
    desc.log = on_log;
    oci.verify_later = true;
    oci.guard = HLSNAP_OCI_GUARD_NONE;
    lines = 0;
    CHECK_EQ(hlsnap_oci_load(dir, "v1", &oci, &s, NULL, &err), HLSNAP_OK);
    CHECK_EQ(hlsnap_sandbox_create_from(s, &desc, &sb, &err), HLSNAP_OK);
    CHECK_EQ(hlsnap_sandbox_call(sb, "say", HLSNAP_NO_ARGS, NULL, &err), HLSNAP_ERR_TIMEOUT);
    hlsnap_sandbox_destroy(sb);
    sb = NULL;
    desc.timeout_ns = 0;
    CHECK_EQ(hlsnap_sandbox_create_from(s, &desc, &sb, &err), HLSNAP_OK);
    interrupt = hlsnap_sandbox_get_interrupt(sb);
    CHECK_EQ(pthread_create(&canceller, NULL, cancel_soon, interrupt), 0);
    CHECK_EQ(hlsnap_sandbox_call(sb, "say", HLSNAP_NO_ARGS, NULL, &err), HLSNAP_ERR_CANCELLED);
    CHECK_EQ(pthread_join(canceller, NULL), 0);
    CHECK_EQ(lines, 0);
    CHECK_EQ(hlsnap_sandbox_get_state(sb), HLSNAP_POISONED);
    __atomic_store_n(&held, 0, __ATOMIC_RELAXED);
    CHECK_EQ(hlsnap_sandbox_restore(sb, s, &err), HLSNAP_OK);
    CHECK_EQ(hlsnap_sandbox_call(sb, "say", HLSNAP_NO_ARGS, NULL, &err), HLSNAP_OK);
    CHECK_EQ(lines, 1);
    alarm(0);
    hlsnap_interrupt_release(interrupt);
    hlsnap_sandbox_destroy(sb);
    hlsnap_snapshot_release(s);
    removed();
}

/* A snapshot that is still being verified, started in the child of a fork: the thread that verifies is not there. */
static void started_in_a_child(void) {
    hlsnap_oci_desc oci = HLSNAP_ZERO;
    hlsnap_snapshot *s = NULL;
    int status = -1;
    pid_t pid;
    saved(100, 7);
    first_thread = pthread_self();
    held = 1;
    oci.verify_later = true;
    CHECK_EQ(hlsnap_oci_load(dir, "v1", &oci, &s, NULL, &err), HLSNAP_OK);
    fflush(stdout);
    pid = fork();
    if (pid == 0) {
        hlsnap_sandbox *sb;
        alarm(30);
        held = 0;
        sb = start_from(s);
        CHECK_EQ(sum(sb, 100), 700);
        CHECK_EQ(hlsnap_sandbox_restore(sb, s, &err), HLSNAP_OK);
        hlsnap_sandbox_destroy(sb);
        hlsnap_snapshot_release(s);
        _exit(test_bad != 0 || live != 0);
    }
    CHECK_EQ(waitpid(pid, &status, 0), pid);
    CHECK_EQ(status, 0);
    __atomic_store_n(&held, 0, __ATOMIC_RELAXED);
    hlsnap_snapshot_release(s);
    removed();
}

/* A pre-init snapshot is no use to anyone else; and a desc that asks for what is not there says so. */
static void refusals(void) {
    hlsnap_guest_desc guest = HLSNAP_ZERO;
    hlsnap_oci_desc oci = HLSNAP_ZERO;
    hlsnap_snapshot *s = NULL;
    char path[512];
    saved(1, 1);
    snprintf(path, sizeof(path), "%s/guest_store.elf", getenv("GUEST_DIR") ? getenv("GUEST_DIR") : ".");
    guest.path = path;
    CHECK_EQ(hlsnap_snapshot_from_guest(&guest, &s, &err), HLSNAP_OK);
    CHECK_EQ(hlsnap_oci_save(dir, "v2", s, NULL, NULL, &err), HLSNAP_ERR_STATE);
    hlsnap_snapshot_release(s);
    oci.guard = (hlsnap_oci_guard)5;
    CHECK_EQ(hlsnap_oci_load(dir, "v1", &oci, &s, NULL, &err), HLSNAP_ERR_ARG);
    CHECK_EQ(hlsnap_oci_load(dir, "v2", NULL, &s, NULL, &err), HLSNAP_ERR_NOT_FOUND);
    removed();
}

/* Tenants over one base, loaded by a cache: a sandbox goes from one to the other, and sees what is its tenant's. */
static void tenants(void) {
    enum { NUM = 3, PAGES = 1000 };
    hlsnap_oci_desc oci = HLSNAP_ZERO;
    hlsnap_snapshot *base, *s[NUM], *taken = NULL;
    hlsnap_sandbox *sb;
    char tag[8];
    uint32_t i, round;
    saved(PAGES, 1);
    base = load(HLSNAP_OCI_GUARD_PRIVATE);
    for (i = 0; i < NUM; i++) { /* of its first pages each has some of its own */
        sb = start_from(base);
        CHECK_EQ(touch(sb, 20 * (i + 1), 10 + i), HLSNAP_OK);
        CHECK_EQ(hlsnap_sandbox_snapshot(sb, &taken, &err), HLSNAP_OK);
        snprintf(tag, sizeof(tag), "t%u", i);
        CHECK_EQ(hlsnap_oci_save(dir, tag, taken, NULL, NULL, &err), HLSNAP_OK);
        hlsnap_snapshot_release(taken);
        hlsnap_sandbox_destroy(sb);
    }
    hlsnap_snapshot_release(base);
    CHECK_EQ(hlsnap_oci_cache_create(0, &oci.cache, &err), HLSNAP_OK);
    for (i = 0; i < NUM; i++) {
        snprintf(tag, sizeof(tag), "t%u", i);
        CHECK_EQ(hlsnap_oci_load(dir, tag, &oci, &s[i], NULL, &err), HLSNAP_OK);
        CHECK(s[i]->num_layers == 2 && s[i]->layers[0] == s[0]->layers[0]);
    }
    hlsnap_oci_cache_destroy(oci.cache);
    sb = start_from(s[0]);
    for (round = 0; round < 40; round++) {
        i = round * 7 % NUM;
        CHECK_EQ(hlsnap_sandbox_restore(sb, s[i], &err), HLSNAP_OK);
        CHECK_EQ(sum(sb, PAGES), PAGES + 20 * (i + 1) * (9 + i));
        CHECK_EQ(touch(sb, round * 20, round), HLSNAP_OK);
    }
    for (i = 1; i < NUM; i++) hlsnap_snapshot_release(s[i]);
    CHECK_EQ(hlsnap_sandbox_restore(sb, s[0], &err), HLSNAP_OK);
    hlsnap_snapshot_release(s[0]);
    CHECK_EQ(sum(sb, PAGES), PAGES + 20 * 9);
    hlsnap_sandbox_destroy(sb);
    removed();
}

static int count_fds(void) {
    int n = 0;
    DIR *d = opendir("/proc/self/fd");
    while (d && readdir(d)) n++;
    if (d) closedir(d);
    return n;
}

/* The whole way once: a guest from a file, from this program (loaded, not run: sanitized code cannot), a call, a snapshot,
   save, load, start, restore, interrupt, new host functions. The first failure ends it. */
static hlsnap_result whole_way(void) {
    static const hlsnap_function exports[] = {{"never", "void()", NULL, NULL}};
    static const hlsnap_module module = {exports, 1, NULL, 0};
    hlsnap_guest_desc self = HLSNAP_ZERO, guest = HLSNAP_ZERO;
    hlsnap_sandbox_desc desc = HLSNAP_ZERO;
    hlsnap_snapshot *mine = NULL, *s = NULL, *loaded = NULL;
    hlsnap_sandbox *sb = NULL, *other = NULL;
    hlsnap_value out;
    char path[512];
    hlsnap_result r;
    snprintf(path, sizeof(path), "%s/guest_store.elf", getenv("GUEST_DIR") ? getenv("GUEST_DIR") : ".");
    self.self = &module;
    guest.path = path;
    guest.heap_size = 16u << 20;
    desc.hypervisor = hlsnap_kvm();
    r = hlsnap_kvm_probe(&err);
    if (!r) r = hlsnap_snapshot_from_guest(&self, &mine, &err);
    if (!r) r = hlsnap_sandbox_create(&guest, &desc, &sb, &err);
    if (!r) r = touch(sb, 100, 1);
    if (!r) r = hlsnap_sandbox_snapshot(sb, &s, &err);
    if (!r) r = hlsnap_sandbox_bind(sb, NULL, 0, &err);
    if (!r) r = hlsnap_oci_save(dir, "oom", s, NULL, NULL, &err);
    if (!r) r = hlsnap_oci_load(dir, "oom", NULL, &loaded, NULL, &err);
    if (!r) r = hlsnap_sandbox_create_from(loaded, &desc, &other, &err);
    if (!r) r = hlsnap_sandbox_restore(sb, loaded, &err);
    if (!r) r = hlsnap_sandbox_call(sb, "sum", HLSNAP_ARGS(hlsnap_u32(100)), &out, &err);
    if (r && sb && hlsnap_sandbox_get_state(sb) == HLSNAP_POISONED && s) { /* whatever failed: a restore mends it */
        CHECK_EQ(hlsnap_sandbox_restore(sb, s, NULL), HLSNAP_OK);
        CHECK_EQ(sum(sb, 100), 100);
    }
    hlsnap_sandbox_destroy(sb);
    hlsnap_sandbox_destroy(other);
    hlsnap_snapshot_release(mine);
    hlsnap_snapshot_release(s);
    hlsnap_snapshot_release(loaded);
    return r;
}

static void allocation_failures(void) {
    const int fds = count_fds();
    hlsnap_result r = HLSNAP_ERR_MEMORY;
    long k, survived = 0;
    dir_make();
    for (k = 1; k < 2000; k += is_slow ? 7 : 1) {
        const long before = live;
        allocations = 0;
        fail_at = k;
        memset(&err, 0, sizeof(err));
        r = whole_way();
        if (allocations < k) break;
        if (r == HLSNAP_OK) survived++; /* what a layer remembers of its place on disk is not worth a failure */
        else CHECK_EQ(err.code, HLSNAP_ERR_MEMORY);
        CHECK(r == HLSNAP_OK || r == HLSNAP_ERR_MEMORY);
        CHECK_EQ(live, before);
        CHECK_EQ(count_fds(), fds);
    }
    fail_at = 0;
    CHECK_EQ(r, HLSNAP_OK);
    printf("# %ld points, %ld of them survived\n", allocations, survived);
    CHECK(allocations > 90); /* 103 with all three headers as they are */
    CHECK(survived <= 6);
    removed();
}

/* All of it on as small a stack as hlsnap.h says is enough. A sanitizer's frames are larger. */
static void *on_a_small_stack(void *arg) {
    *(hlsnap_result *)arg = whole_way();
    return NULL;
}
static void small_stack(void) {
    const size_t sanitized = SANITIZED ? 8 : 1;
    hlsnap_result r = HLSNAP_ERR_STATE;
    pthread_attr_t attr;
    pthread_t thread;
    saved(10, 3);
    pthread_attr_init(&attr);
    CHECK_EQ(pthread_attr_setstacksize(&attr, sanitized * (32u << 10)), 0);
    CHECK_EQ(pthread_create(&thread, &attr, on_a_small_stack, &r), 0);
    CHECK_EQ(pthread_join(thread, NULL), 0);
    CHECK_EQ(r, HLSNAP_OK);
    pthread_attr_destroy(&attr);
    removed();
}

static const test_row tests[] = {TEST(allocation_failures), TEST(full_circle), TEST(size_on_disk), TEST(delta_on_disk), TEST(files_change), TEST(learned_of_loaded), TEST(verified_later), TEST(limits_hold_while_verified), TEST(started_in_a_child), TEST(tenants), TEST(small_stack), TEST(refusals)};

int main(int argc, char **argv) {
    if (hlsnap_kvm_probe(&err)) {
        printf("ok 1 - store # SKIP %s\n1..1\n0 passed, 0 failed, 1 skipped\n", err.msg);
        return 77;
    }
    is_slow = getenv("SVM") != NULL;
    return TEST_MAIN(tests, argc, argv);
}

/* test_limits.c - processes with little: file sizes, descriptors, stacks. On the fake hypervisor, so that it runs anywhere.

   cc:  cc -I.. test_limits.c -o test_limits -lcjson
   run: ./test_limits [NAME]                        works in a directory of its own in $TMPDIR or /tmp */
#define HLSNAP_IMPLEMENTATION
#include "fake.h"
#include "hlsnap_oci.h"
#include "guest_fake.h"
#include "test.h"
#include <stdarg.h>

static hlsnap_result dirty(hlsnap_sandbox *sb, uint32_t first, uint32_t pages, uint32_t step, uint32_t seed) {
    hlsnap_result r = HLSNAP_OK;
    uint32_t i;
    for (i = 0; !r && i < pages; i++)
        r = hlsnap_sandbox_call(sb, "dirty", HLSNAP_ARGS(hlsnap_u64(region_gva(sb, HLSNAP__HEAP) + (first + i * step) * 4096ull),
                                hlsnap_u32(1), hlsnap_u32(seed + i)), NULL, &err);
    return r;
}

/* ---- file sizes: RLIMIT_FSIZE, with SIGXFSZ at its default action ---- */

/* What a process has before the limit comes. */
typedef struct world { hlsnap_sandbox *sb; hlsnap_snapshot *first, *hundred, *short_runs, *made; hlsnap_sandbox *other; } world;

static hlsnap_result f_create(world *w) {
    const hlsnap_guest_desc g = fake_guest(GUEST_FEW, 16);
    const hlsnap_sandbox_desc d = host_desc();
    return hlsnap_sandbox_create(&g, &d, &w->other, &err);
}
static hlsnap_result f_from_guest(world *w) {
    const hlsnap_guest_desc g = fake_guest(GUEST_FEW, 16);
    return hlsnap_snapshot_from_guest(&g, &w->made, &err);
}
static hlsnap_result f_create_from(world *w) {
    const hlsnap_sandbox_desc d = host_desc();
    return hlsnap_sandbox_create_from(w->hundred, &d, &w->other, &err);
}
static hlsnap_result f_create_short(world *w) {
    const hlsnap_sandbox_desc d = host_desc();
    return hlsnap_sandbox_create_from(w->short_runs, &d, &w->other, &err);
}
static hlsnap_result f_call(world *w) { return dirty(w->sb, 0, 100, 1, 4); }
static hlsnap_result f_snapshot(world *w) { return hlsnap_sandbox_snapshot(w->sb, &w->made, &err); }
static hlsnap_result f_snapshot_little(world *w) {
    const hlsnap_result r = hlsnap_sandbox_restore(w->sb, w->first, &err);
    if (!r) dirty(w->sb, 7, 30, 1, 5);
    return r ? r : hlsnap_sandbox_snapshot(w->sb, &w->made, &err);
}
static hlsnap_result f_restore(world *w) { return hlsnap_sandbox_restore(w->sb, w->hundred, &err); }
static hlsnap_result f_save(world *w) { return hlsnap_oci_save("new", "v1", w->hundred, NULL, NULL, &err); }
static hlsnap_result f_save_more(world *w) { return hlsnap_oci_save("layout", "v2", w->short_runs, NULL, NULL, &err); }
static hlsnap_result f_load(world *w) { return hlsnap_oci_load("layout", "v1", NULL, &w->made, NULL, &err); }
static hlsnap_result f_load_later(world *w) {
    hlsnap_oci_desc d = HLSNAP_ZERO;
    uint8_t byte;
    hlsnap_result r;
    d.verify_later = true;
    d.threads = 3;
    r = hlsnap_oci_load("layout", "v1", &d, &w->made, NULL, &err);
    return r ? r : hlsnap_snapshot_read(w->made, w->made->guest->layout.regions[0].gva, &byte, 1, &err);
}
static hlsnap_result f_load_none(world *w) {
    hlsnap_oci_desc d = HLSNAP_ZERO;
    d.guard = HLSNAP_OCI_GUARD_DETECT;
    return hlsnap_oci_load("layout", "v1", &d, &w->made, NULL, &err);
}
static hlsnap_result f_flatten(world *w) { return (void)w, hlsnap_oci_flatten("layout", "v1", "flat", NULL, NULL, &err); }
static hlsnap_result f_copy(world *w) { return (void)w, hlsnap_oci_copy("layout", "v1", "new", NULL, NULL, NULL, &err); }
static hlsnap_result f_tag(world *w) { return (void)w, hlsnap_oci_tag("layout", "v1", "other", &err); }
static hlsnap_result f_untag(world *w) { return (void)w, hlsnap_oci_untag("layout", "v1", &err); }
static hlsnap_result f_gc(world *w) { return (void)w, hlsnap_oci_gc("layout", 0, NULL, &err); }
static hlsnap_result f_fsck(world *w) { return (void)w, hlsnap_oci_fsck("layout", true, &err); }

enum { NOTHING, IMAGE, LAYER, SAVED, SOME };
static const struct { const char *name; hlsnap_result (*run)(world *w); int needs; } jobs[] = {
    {"create", f_create, IMAGE},         {"from_guest", f_from_guest, IMAGE},   {"create_from", f_create_from, NOTHING},
    {"create_short", f_create_short, NOTHING}, {"call", f_call, NOTHING},         {"snapshot", f_snapshot, LAYER},
    {"snapshot_little", f_snapshot_little, NOTHING}, {"restore", f_restore, NOTHING}, {"save", f_save, SAVED},
    {"save_more", f_save_more, SOME},    {"load", f_load, LAYER},               {"load_later", f_load_later, LAYER},
    {"load_none", f_load_none, NOTHING}, {"flatten", f_flatten, SAVED},         {"tag", f_tag, SOME},
    {"untag", f_untag, SOME},            {"gc", f_gc, SOME},                    {"fsck", f_fsck, NOTHING},
    {"copy", f_copy, SAVED}};

static world world_make(void) {
    world w;
    memset(&w, 0, sizeof(w));
    w.sb = start(GUEST_FEW, 600);
    CHECK_EQ(hlsnap_sandbox_snapshot(w.sb, &w.first, &err), HLSNAP_OK);
    CHECK_EQ(dirty(w.sb, 1, 100, 1, 1), HLSNAP_OK);
    CHECK_EQ(hlsnap_sandbox_snapshot(w.sb, &w.hundred, &err), HLSNAP_OK);
    CHECK_EQ(dirty(w.sb, 1, 60, 2, 2), HLSNAP_OK); /* every other page: all of them become short runs */
    CHECK_EQ(hlsnap_sandbox_snapshot(w.sb, &w.short_runs, &err), HLSNAP_OK);
    CHECK_EQ(dirty(w.sb, 200, 110, 3, 3), HLSNAP_OK);
    return w;
}

static void world_end(world *w) {
    hlsnap_sandbox_destroy(w->sb);
    hlsnap_sandbox_destroy(w->other);
    hlsnap_snapshot_release(w->first);
    hlsnap_snapshot_release(w->hundred);
    hlsnap_snapshot_release(w->short_runs);
    hlsnap_snapshot_release(w->made);
}

static uint64_t needed; /* by a job, as its own result shows it; 0 = not known */

static void learn(int i, world *w) {
    const int needs = jobs[i].needs;
    const hlsnap_snapshot *s;
    needed = 0;
    if (needs == IMAGE) needed = w->first->layers[0]->pages * 4096;
    if (needs == SAVED) CHECK_EQ(hlsnap_oci_load(jobs[i].run == f_save ? "new" : "layout", "v1", NULL, &w->made, NULL, &err), 0);
    s = needs == LAYER || needs == SAVED ? w->made : NULL;
    if (s) needed = s->layers[s->num_layers - 1]->pages * 4096;
}

/* In a child: the job under the limit, then, after a failure, once more without. Exit code: 0 done, 1 refused as it should be. */
static void limited(int i, rlim_t limit) {
    struct rlimit l;
    hlsnap_result r;
    world w;
    test_bad = 0;
    signal(SIGXFSZ, SIG_DFL);
    fake_reset();
    w = world_make();
    CHECK_EQ(getrlimit(RLIMIT_FSIZE, &l), 0);
    l.rlim_cur = limit;
    CHECK_EQ(setrlimit(RLIMIT_FSIZE, &l), 0);
    memset(&err, 0, sizeof(err));
    r = jobs[i].run(&w);
    l.rlim_cur = l.rlim_max;
    CHECK_EQ(setrlimit(RLIMIT_FSIZE, &l), 0);
    if (r) {
        char words[40];
        snprintf(words, sizeof(words), "RLIMIT_FSIZE is %llu", (unsigned long long)limit);
        CHECK_EQ(r, HLSNAP_ERR_OS);
        CHECK_EQ(err.os_errno, EFBIG);
        CHECK(strstr(err.msg, words) != NULL && strstr(err.msg, " bytes") != NULL);
        if (test_bad) printf("# %s, limit %llu: %s\n", jobs[i].name, (unsigned long long)limit, err.msg);
        CHECK_EQ(access("new", F_OK), -1); /* a save that failed leaves no layout */
        CHECK(w.made == NULL && w.other == NULL);
        CHECK_EQ(jobs[i].run(&w), HLSNAP_OK);
    }
    learn(i, &w);
    CHECK(!needed || limit >= needed || r);
    if (needed && (limit < needed) != (r != 0)) printf("# %s needs %llu\n", jobs[i].name, (unsigned long long)needed);
    if (jobs[i].needs != SOME) CHECK_EQ(limit < needed, r != 0);
    if (access("layout", F_OK) == 0) CHECK_EQ(hlsnap_oci_fsck("layout", false, NULL), HLSNAP_OK);
    world_end(&w);
    CHECK_EQ(hv.bad, 0);
    _exit(test_bad ? 9 : r ? 1 : 0);
}

static int child_of(int i, rlim_t limit) {
    int status = -1;
    pid_t pid;
    CHECK_EQ(sh("rm -rf layout new; cp -a template layout"), 0);
    fflush(stdout);
    pid = fork();
    if (pid == 0) limited(i, limit);
    CHECK_EQ(waitpid(pid, &status, 0), pid);
    if (WIFEXITED(status) && WEXITSTATUS(status) <= 1) return WEXITSTATUS(status);
    CHECK(0);
    printf("# %s, limit %llu: status 0x%x%s\n", jobs[i].name, (unsigned long long)limit, (unsigned)status,
           WIFSIGNALED(status) && WTERMSIG(status) == SIGXFSZ ? ", SIGXFSZ" : "");
    return -1;
}

/* The layout that jobs work on a copy of. */
static void layout_make(void) {
    world w;
    if (access("template", F_OK) == 0) return;
    w = world_make();
    CHECK_EQ(hlsnap_oci_save("template", "v1", w.hundred, NULL, NULL, &err), HLSNAP_OK);
    CHECK_EQ(hlsnap_oci_save("template", "old", w.first, NULL, NULL, &err), HLSNAP_OK);
    CHECK_EQ(hlsnap_oci_untag("template", "old", &err), HLSNAP_OK);
    world_end(&w);
}

/* Every job with no bytes, a page, one byte less than it needs and just enough; that is found by halving. */
static void file_sizes(void) {
    int i;
    layout_make();
    for (i = 0; i < (int)HLSNAP_COUNT(jobs) && !test_bad; i++) {
        rlim_t low = 0, high = 1u << 21; /* low is refused, high is enough */
        const int none = child_of(i, 0);
        CHECK_EQ(none, jobs[i].needs != NOTHING);
        CHECK_EQ(child_of(i, high), 0);
        CHECK(child_of(i, 4096) >= 0);
        while (none == 1 && high - low > 1 && !test_bad) {
            const rlim_t mid = low + (high - low) / 2;
            if (child_of(i, mid)) low = mid;
            else high = mid;
        }
    }
}

/* ---- descriptors, and whatever else is used up only for now ---- */

/* Every errno has words of its own, and says whether it passes by itself. */
static const struct { int number; bool passes; } errnos[] = {
    {ENOENT, false},     {EACCES, false}, {EPERM, false},  {ENOTDIR, false}, {EISDIR, false},  {ELOOP, false},  {ENAMETOOLONG, false},
    {EEXIST, false},     {ENOTEMPTY, false}, {EXDEV, false}, {EMLINK, false}, {EROFS, false},  {ENOSPC, false}, {EDQUOT, false},
    {EFBIG, false},      {EOVERFLOW, false}, {E2BIG, false}, {EMFILE, true},  {ENFILE, true},  {ENOMEM, true},  {ENOBUFS, true},
    {EAGAIN, true},      {EBUSY, true},   {ETXTBSY, true}, {ENOLCK, true},   {EDEADLK, true},  {EINTR, true},   {ETIMEDOUT, true},
    {EIO, false},        {ESTALE, false}, {ENODEV, false}, {ENXIO, false},   {ENOTTY, false},  {ENOSYS, false}, {EOPNOTSUPP, false},
    {EINVAL, false},     {EBADF, false},  {EFAULT, false}, {ESPIPE, false},  {ESRCH, false}};

static void transient(void) {
    static const struct { hlsnap_result code; const char *name; } codes[] = {
#define ROW(name, number, text) {HLSNAP_##name, "HLSNAP_" #name},
        HLSNAP_RESULTS(ROW)
#undef ROW
    };
    hlsnap_error e = HLSNAP_ZERO;
    size_t i, k;
    CHECK(!hlsnap_result_transient(NULL) && !hlsnap_result_transient(&e));
    for (i = 0; i < HLSNAP_COUNT(errnos); i++) {
        const char *words = hlsnap__errno_text(errnos[i].number);
        CHECK(strcmp(words, "failed") != 0 && strlen(words) > 5);
        for (k = 0; k < i; k++) CHECK(strcmp(words, hlsnap__errno_text(errnos[k].number)) != 0);
        for (k = 0; k < HLSNAP_COUNT(codes); k++) {
            const hlsnap_result c = e.code = codes[k].code;
            const bool always = c == HLSNAP_ERR_MEMORY || c == HLSNAP_ERR_BUSY;
            const bool of_the_system = c == HLSNAP_ERR_OS || c == HLSNAP_ERR_HYPERVISOR || c == HLSNAP_ERR_FILE;
            e.os_errno = errnos[i].number;
            if (!CHECK_EQ(hlsnap_result_transient(&e), always || (of_the_system && errnos[i].passes)))
                printf("# %s, errno %d\n", codes[k].name, errnos[i].number);
            e.os_errno = 0;
            CHECK_EQ(hlsnap_result_transient(&e), always);
        }
    }
    CHECK_STR(hlsnap__errno_text(-1), "failed");
}

/* In a child: a job with one descriptor more each time, until that is enough. */
static void without_descriptors(int i) {
    struct rlimit l;
    hlsnap_result r = HLSNAP_ERR_OS;
    int refused = 0, more;
    world w;
    test_bad = 0;
    fake_reset();
    w = world_make();
    getrlimit(RLIMIT_NOFILE, &l);
    for (more = 0; r && more < 40 && !test_bad; more++) {
        const int free_fd = dup(0), fds = count_fds() - 1;
        close(free_fd);
        l.rlim_cur = (rlim_t)(free_fd + more);
        CHECK_EQ(setrlimit(RLIMIT_NOFILE, &l), 0);
        r = jobs[i].run(&w);
        l.rlim_cur = l.rlim_max;
        CHECK_EQ(setrlimit(RLIMIT_NOFILE, &l), 0);
        if (!r) break;
        refused++;
        if (!CHECK_EQ(r, HLSNAP_ERR_OS) || !CHECK_EQ(err.os_errno, EMFILE) || !CHECK(hlsnap_result_transient(&err)) ||
            !CHECK(strstr(err.msg, "too many files are open in this process") != NULL) || !CHECK_EQ(count_fds(), fds))
            printf("# %s with %d descriptors: %s %s\n", jobs[i].name, more, hlsnap_result_name(r), err.msg);
    }
    CHECK_EQ(r, HLSNAP_OK);
    printf("# %s: refused %d times\n", jobs[i].name, refused);
    if (jobs[i].needs != NOTHING) CHECK(refused > 0);
    world_end(&w);
    _exit(test_bad != 0);
}

static void descriptors(void) {
    int i, status = -1;
    layout_make();
    for (i = 0; i < (int)HLSNAP_COUNT(jobs); i++) {
        pid_t pid;
        CHECK_EQ(sh("rm -rf layout new; cp -a template layout"), 0);
        fflush(stdout);
        pid = fork();
        if (pid == 0) without_descriptors(i);
        CHECK_EQ(waitpid(pid, &status, 0), pid);
        CHECK_EQ(status, 0);
    }
}

/* A tag of another tool's is not taken away because its manifest cannot be opened just now. */
static void untag_what_is_held(void) {
    static const char foreign[] = "{\"schemaVersion\":2,\"mediaType\":\"application/vnd.oci.image.manifest.v1+json\",\"config\":{"
                                  "\"mediaType\":\"a/b\",\"digest\":\"sha256:"
                                  "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a\",\"size\":2},\"layers\":[]}";
    uint8_t sum[32];
    char digest[72], path[120];
    int fd;
    layout_make();
    CHECK_EQ(sh("rm -rf layout; cp -a template layout"), 0);
    hlsnap__sha256_of(hlsnap__sha256_pick(0)->one, foreign, sizeof(foreign) - 1, sum);
    hlsnap__sha256_text(sum, digest);
    snprintf(path, sizeof(path), "layout/blobs/sha256/%s", digest + 7);
    CHECK_EQ(sh("printf '%%s' '%s' >%s", foreign, path), 0);
    CHECK_EQ(sh("sed -i 's|\"manifests\":\\[|&{\"mediaType\":\"application/vnd.oci.image.manifest.v1+json\",\"digest\":\"%s\",\"size\":"
                "%d,\"annotations\":{\"org.opencontainers.image.ref.name\":\"theirs\"}},|' layout/index.json", digest,
                (int)sizeof(foreign) - 1), 0);
    CHECK_EQ(hlsnap_oci_untag("layout", "theirs", &err), HLSNAP_ERR_MEDIA_TYPE);
    fd = open(path, O_RDWR);
    if (fcntl(fd, F_SETSIG, SIGURG) != 0 || fcntl(fd, F_SETLEASE, F_WRLCK) != 0) {
        close(fd);
        SKIP("no leases here");
    }
    CHECK_EQ(hlsnap_oci_untag("layout", "theirs", &err), HLSNAP_ERR_OS);
    CHECK_EQ(err.os_errno, EAGAIN);
    CHECK(hlsnap_result_transient(&err));
    close(fd);
    CHECK_EQ(sh("grep -q '\"theirs\"' layout/index.json"), 0);
    CHECK_EQ(hlsnap_oci_untag("layout", "theirs", &err), HLSNAP_ERR_MEDIA_TYPE);
}

/* The k-th system call of a job fails, for every k: what is used up for now is the system's or memory, never the machine's. */
static void used_up(void) {
    static const int numbers[] = {EMFILE, ENFILE, EAGAIN, ENOMEM};
    size_t e;
    int i, failures = 0;
    for (i = 0; jobs[i].run != f_save; i++)
        for (e = 0; e < HLSNAP_COUNT(numbers); e++) {
            hlsnap_result r = HLSNAP_ERR_OS;
            long k;
            for (k = 0; k < 200; k++) {
                world w = world_make();
                bool hit;
                inject_arm(-1, k);
                inject.sys_errno = numbers[e];
                r = jobs[i].run(&w);
                hit = inject_disarm();
                inject.sys_errno = 0;
                world_end(&w);
                if (!hit) break;
                if (!r) continue; /* it can do without */
                failures++;
                if (!CHECK(r == HLSNAP_ERR_OS || (r == HLSNAP_ERR_MEMORY && numbers[e] == ENOMEM)) ||
                    !CHECK_EQ(err.code, r) || !CHECK_EQ(err.os_errno, numbers[e]) || !CHECK(hlsnap_result_transient(&err)) ||
                    !CHECK(strstr(err.msg, hlsnap__errno_text(numbers[e])) != NULL) ||
                    !CHECK(r != HLSNAP_ERR_MEMORY || strstr(err.msg, "RLIMIT_AS") != NULL))
                    printf("# %s, system call %ld: %s %s\n", jobs[i].name, k, hlsnap_result_name(r), err.msg);
            }
            CHECK(k < 200);
            CHECK_EQ(r, HLSNAP_OK);
        }
    CHECK(failures > 50);
}

/* ---- stacks ---- */

#define STACK_ENOUGH (32u << 10) /* as hlsnap.h says */
#define STACK_ALL (512u << 10)

typedef struct painted { int job; world *w; hlsnap_result r; uint8_t *low; size_t used; } painted;

static void *on_painted(void *arg) { /* all below this frame is painted, so what is not any more was used */
    painted *p = (painted *)arg;
    uint8_t here = 0, *const top = (uint8_t *)__builtin_frame_address(0) - 256;
    (void)here;
    memset(p->low, 0xa5, (size_t)(top - p->low) - 2048);
    p->r = jobs[p->job].run(p->w);
    while (p->low < top && *p->low == 0xa5) p->low++;
    p->used = (size_t)(top - p->low);
    return NULL;
}

/* The deepest use of each job, on a thread of its own. The C library takes some of a thread's stack for itself. */
static void stacks(void) {
    const size_t library = 4096;
    size_t deepest[2] = {0, 0};
    int i;
    if (SANITIZED || RUNNING_ON_VALGRIND) SKIP("frames are larger here");
    layout_make();
    for (i = 0; i < (int)HLSNAP_COUNT(jobs); i++) {
        const int store = jobs[i].run == f_save || i > 8;
        pthread_attr_t attr;
        pthread_t thread;
        painted p = {i, NULL, HLSNAP_ERR_OS, NULL, 0};
        world w = world_make();
        void *stack = mmap(NULL, STACK_ALL, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        CHECK_EQ(sh("rm -rf layout new; cp -a template layout"), 0);
        p.w = &w;
        p.low = (uint8_t *)stack;
        pthread_attr_init(&attr);
        CHECK_EQ(pthread_attr_setstack(&attr, stack, STACK_ALL), 0);
        CHECK_EQ(pthread_create(&thread, &attr, on_painted, &p), 0);
        pthread_join(thread, NULL);
        pthread_attr_destroy(&attr);
        CHECK_EQ(p.r, HLSNAP_OK);
        printf("# %s: %zu bytes of stack\n", jobs[i].name, p.used);
        if (!CHECK(p.used + library <= STACK_ENOUGH)) printf("# %s\n", jobs[i].name);
        if (p.used > deepest[store]) deepest[store] = p.used;
        world_end(&w);
        munmap(stack, STACK_ALL);
    }
    printf("# deepest: %zu, with the store %zu\n", deepest[0], deepest[1]);
}

static const test_row tests[] = {TEST(file_sizes), TEST(transient), TEST(descriptors), TEST(untag_what_is_held), TEST(used_up), TEST(stacks)};

int main(int argc, char **argv) {
    const struct rlimit no_core = {0, 0};
    const char *tmp = getenv("TMPDIR");
    char home[200];
    int r;
    snprintf(home, sizeof(home), "%.150s/hlsnap-limits-XXXXXX", tmp ? tmp : "/tmp");
    if (!mkdtemp(home) || chdir(home) != 0) return 1;
    setrlimit(RLIMIT_CORE, &no_core);
    setvbuf(stdout, NULL, _IOLBF, 0);
    fake_reset();
    r = (test_words = err.msg, TEST_MAIN(tests, argc, argv));
    if (chdir("/") == 0) sh("rm -rf %s", home);
    return r;
}

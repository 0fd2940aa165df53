/* test_operations.c - what docs/operations.md says to those who run hosts: the system calls of each phase, as filters that are
   applied here and refused one by one; what sandboxes cost; what survives a fork.
   cc:  cc -std=gnu11 -I.. test_operations.c -o test_operations -lcjson
   run: DOCS=../docs/operations.md ./test_operations [NAME]     guest_store.elf lies in GUEST_DIR; layouts in $TMPDIR or /tmp */
#define _GNU_SOURCE
#define HLSNAP_IMPLEMENTATION
#include "hlsnap.h"
#include "hlsnap_kvm.h"
#include "hlsnap_oci.h"
#include "test.h"
#include <dirent.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <pthread.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>

#define NUM_CALLS 512u /* numbers of system calls */
#define MS 1000000u

/* ---- >>lists: docs/operations.md has the system calls of each phase, and which of them a machine, a libc or chance decides ---- */

enum phase { START, SERVE, STORE, NUM_PHASES, VARIES = NUM_PHASES, NUM_LISTS, PREPARE };
static const char *const labels[NUM_LISTS] = {"START", "SERVE", "STORE", "VARIES"};
static bool listed[NUM_LISTS][NUM_CALLS];
static char *document;

static bool document_read(void) {
    const char *path = getenv("DOCS") ? getenv("DOCS") : "docs/operations.md";
    FILE *f = fopen(path, "r");
    size_t n = 0;
    document = (char *)calloc(1, 1 << 20);
    if (f) n = fread(document, 1, (1 << 20) - 1, f), fclose(f);
    if (!n) printf("# cannot read %s: set DOCS\n", path);
    return n > 0;
}

static uint32_t number_of(const char *name) {
    uint32_t i;
    for (i = 0; i < NUM_CALLS && strcmp(hlsnap__syscall_name(i), name) != 0;) i++;
    return i;
}

/* The names that stand behind the label, up to an empty line; false: there are none, or one is none. */
static bool list_read(const char *label, bool *list) {
    char head[32], word[64];
    const char *at, *end;
    int used;
    snprintf(head, sizeof(head), "\n    %s: ", label);
    at = strstr(document, head);
    end = at ? strstr(at + 1, "\n\n") : NULL;
    if (!end) return printf("# no line '    %s: '\n", label), false;
    for (at += strlen(head); at < end && sscanf(at, "%63s%n", word, &used) == 1; at += used) {
        const uint32_t i = number_of(word);
        if (i == NUM_CALLS) return printf("# %s: there is no system call '%s'\n", label, word), false;
        if (list[i]) return printf("# %s: %s twice\n", label, word), false;
        list[i] = true;
    }
    return true;
}

static bool lists_read(void) {
    uint32_t i;
    if (!document_read()) return false;
    memset(listed, 0, sizeof(listed));
    for (i = 0; i < NUM_LISTS; i++)
        if (!list_read(labels[i], listed[i])) return false;
    return true;
}

/* ---- >>guest: this program ---- */

static uint8_t *block; /* of the heap, aligned to a page */
static uint32_t *page_at(uint32_t i) {
    if (!block) {
        uint8_t *p = (uint8_t *)hlsnap_rt_malloc(7u << 20);
        if (!p) hlsnap_rt_abort(1, "no memory");
        block = p + (4096 - (uintptr_t)p % 4096);
    }
    return (uint32_t *)(void *)(block + (size_t)i * 4096);
}
static hlsnap_result fill(hlsnap_call *call, void *user) { /* pages from, to, each `step`-th one; value */
    uint32_t i;
    (void)user;
    for (i = hlsnap_call_arg(call, 0).as.u32; i < hlsnap_call_arg(call, 1).as.u32; i += hlsnap_call_arg(call, 2).as.u32)
        *page_at(i) = hlsnap_call_arg(call, 3).as.u32;
    return HLSNAP_OK;
}
static hlsnap_result sum(hlsnap_call *call, void *user) {
    uint32_t i, n = 0;
    (void)user;
    for (i = 0; i < hlsnap_call_arg(call, 0).as.u32; i++) n += *page_at(i);
    return hlsnap_call_return(call, hlsnap_u32(n));
}
static hlsnap_result spin(hlsnap_call *call, void *user) { /* says so, then runs for ever */
    (void)user;
    hlsnap_rt_print("spinning");
    if (hlsnap_rt_call("tell", HLSNAP_NO_ARGS, NULL, NULL)) return hlsnap_call_fail(call, 1, "not told");
    for (;;) __asm__ volatile("pause");
}
static hlsnap_result fault(hlsnap_call *call, void *user) { /* with a selector in GS that software KVM leaves in the host's thread */
    (void)call, (void)user;
    __asm__ volatile("movw %%ss, %%ax\n movw %%ax, %%gs\n ud2" ::: "rax");
    return HLSNAP_OK;
}
static const hlsnap_function exports[] = {{"fill", "void(u32,u32,u32,u32)", fill, NULL}, {"sum", "u32(u32)", sum, NULL}, {"spin", "void()", spin, NULL},
                                          {"fault", "void()", fault, NULL}};
static const hlsnap_function imports[] = {{"tell", "void()", NULL, NULL}};
static const hlsnap_module module = {exports, HLSNAP_COUNT(exports), imports, HLSNAP_COUNT(imports)};

/* ---- >>host: what the phases work with, and what they find; in memory that a parent sees, too ---- */

typedef struct report {
    int32_t phase;             /* atomic: enum phase of what runs now */
    int32_t listener;          /* atomic: descriptor of the filter's notifications, in the child; 0 = not yet, -1 = none */
    int listener_errno;
    uint32_t steps, failed, wrong;
    hlsnap_result code;        /* of the first step that failed; */
    int os_errno;
    char what[100], msg[512];
    char wrong_what[800];      /* the first wrong answer, or untyped failure */
} report;
static report *shared;

static struct host {
    char dir[200];             /* a layout */
    hlsnap_function functions[1];
    hlsnap_sandbox_desc how;
    hlsnap_snapshot *one, *two, *other, *loaded[3]; /* loaded: guards NONE, DETECT, LEASE */
    hlsnap_sandbox *sb, *of[3];
    hlsnap_pool *pool;
    hlsnap_interrupt *interrupt;
    int32_t told;              /* atomic: the guest spins */
    int32_t order;             /* atomic: what the helper is to do; 0 = nothing */
    hlsnap_sandbox *acquired;  /* that the helper releases */
    pthread_t helper;
} host;
static hlsnap_error last;

static void wrong(const char *what, unsigned long long value) {
    if (!shared->wrong++) snprintf(shared->wrong_what, sizeof(shared->wrong_what), "%s: %llu, %s", what, value, last.msg);
}

/* A failure is fine where calls are refused, but it must be one of the library's: a code, the same in both places, and a text. */
static bool done(hlsnap_result r, const char *what) {
    shared->steps++;
    if (!r) return true;
    if ((uint32_t)r >= HLSNAP_MAX_RESULTS || strcmp(hlsnap_result_name(r), "?") == 0 || last.code != r || !last.msg[0]) wrong(what, (uint32_t)r);
    if (!shared->failed++) {
        shared->code = r;
        shared->os_errno = last.os_errno;
        snprintf(shared->what, sizeof(shared->what), "%s", what);
        snprintf(shared->msg, sizeof(shared->msg), "%s", last.msg);
    }
    return false;
}
#define DO(call) (last.code = HLSNAP_OK, last.msg[0] = 0, done(call, #call))
/* One that must end so; any other failure is as above, HLSNAP_OK is wrong. */
static bool ends(hlsnap_result r, hlsnap_result wanted, const char *what) {
    if (r == wanted) return shared->steps++, true;
    if (!r) wrong(what, 0);
    return done(r, what);
}
#define ENDS(call, wanted) (last.code = HLSNAP_OK, last.msg[0] = 0, ends(call, wanted, #call))

static hlsnap_result told(hlsnap_call *call, void *user) {
    (void)call, (void)user;
    __atomic_store_n(&host.told, 1, __ATOMIC_RELEASE);
    return HLSNAP_OK;
}
static void heard(int level, const char *text, size_t size, void *user) { (void)level, (void)text, (void)size, (void)user; }

static hlsnap_result filled(hlsnap_sandbox *sb, uint32_t from, uint32_t to, uint32_t step, uint32_t value) {
    return hlsnap_sandbox_call(sb, "fill", HLSNAP_ARGS(hlsnap_u32(from), hlsnap_u32(to), hlsnap_u32(step), hlsnap_u32(value)), NULL, &last);
}
static void summed(hlsnap_sandbox *sb, uint32_t pages, uint32_t value) {
    hlsnap_value v = HLSNAP_ZERO;
    if (DO(hlsnap_sandbox_call(sb, "sum", HLSNAP_ARGS(hlsnap_u32(pages)), &v, &last)) && v.as.u32 != value) wrong("sum", v.as.u32);
}

/* As SYS_nanosleep, which is nobody else's: see own(). */
static void nap(void) {
    static const struct timespec moment = {0, 200000};
    syscall(SYS_nanosleep, &moment, NULL);
}

/* Does what other threads of a host do. */
enum order { NOTHING, CANCEL, SIGNAL, RELEASE, END };
static void *helps(void *user) {
    int32_t order;
    (void)user;
    while ((order = __atomic_load_n(&host.order, __ATOMIC_ACQUIRE)) != END) {
        const bool now = order == RELEASE ? __atomic_load_n(&host.pool->waiting, __ATOMIC_RELAXED) > 0
                                          : __atomic_load_n(&host.told, __ATOMIC_ACQUIRE) != 0;
        nap();
        if (order == NOTHING || !now) continue;
        if (order == CANCEL) hlsnap_interrupt_cancel(host.interrupt);
        if (order == SIGNAL) kill(getpid(), SIGURG);
        if (order == RELEASE) hlsnap_pool_release(host.pool, host.acquired);
        __atomic_store_n(&host.order, NOTHING, __ATOMIC_RELEASE);
    }
    return NULL;
}
static void tell(enum order order) {
    __atomic_store_n(&host.told, 0, __ATOMIC_RELEASE);
    __atomic_store_n(&host.order, (int32_t)order, __ATOMIC_RELEASE);
}
static void told_done(void) {
    while (__atomic_load_n(&host.order, __ATOMIC_ACQUIRE) != NOTHING) nap();
}

/* ---- >>phases ---- */

static const char *store_guest(void) {
    static char path[512];
    snprintf(path, sizeof(path), "%s/guest_store.elf", getenv("GUEST_DIR") ? getenv("GUEST_DIR") : ".");
    return path;
}

/* A directory for a layout that a group shares, with a default ACL, where we may make one. */
static void prepare_shared(void) {
    static const uint16_t acl[] = {2, 0, 1, 7, 0xffff, 0xffff, 4, 7, 0xffff, 0xffff, 0x20, 0, 0xffff, 0xffff}; /* user::rwx, group::rwx, other::--- */
    char path[220];
    snprintf(path, sizeof(path), "%s/shared", host.dir);
    if (mkdir(path, 0770) || chmod(path, 02770)) return;
    if (geteuid() == 0 && chown(path, 1, 1)) return;
    setxattr(path, "system.posix_acl_default", acl, sizeof(acl), 0);
}

/* Before the phases: a layout, and snapshots loaded from it whose files are not copied; the helper. */
static bool prepare(void) {
    static const hlsnap_oci_guard guards[] = {HLSNAP_OCI_GUARD_NONE, HLSNAP_OCI_GUARD_DETECT, HLSNAP_OCI_GUARD_LEASE};
    const char *tmp = getenv("TMPDIR");
    hlsnap_guest_desc guest = HLSNAP_ZERO;
    hlsnap_oci_desc oci = HLSNAP_ZERO;
    hlsnap_sandbox *sb = NULL;
    hlsnap_snapshot *s = NULL;
    sigset_t urgent, old;
    uint32_t i;
    snprintf(host.dir, sizeof(host.dir), "%.150s/hlsnap-operations-XXXXXX", tmp ? tmp : "/tmp");
    host.functions[0].name = "tell", host.functions[0].signature = "void()", host.functions[0].fn = told;
    host.how.hypervisor = hlsnap_kvm();
    host.how.functions = host.functions, host.how.num_functions = 1;
    host.how.log = heard, host.how.log_level = 4;
    guest.self = &module;
    guest.heap_size = 8u << 20;
    if (!mkdtemp(host.dir) || !DO(hlsnap_sandbox_create(&guest, &host.how, &sb, &last)) || !DO(filled(sb, 0, 200, 1, 3))) return false;
    if (!DO(hlsnap_sandbox_snapshot(sb, &s, &last)) || !DO(hlsnap_oci_save(host.dir, "v1", s, NULL, NULL, &last))) return false;
    for (i = 0; i < HLSNAP_COUNT(guards); i++) {
        oci.guard = guards[i];
        if (!DO(hlsnap_oci_load(host.dir, "v1", &oci, &host.loaded[i], NULL, &last))) return false;
    }
    hlsnap_snapshot_release(s);
    hlsnap_sandbox_destroy(sb);
    prepare_shared();
    sigemptyset(&urgent);
    sigaddset(&urgent, SIGURG); /* sent to the process, it is the other thread's */
    sigprocmask(SIG_BLOCK, &urgent, &old);
    pthread_create(&host.helper, NULL, helps, NULL);
    sigprocmask(SIG_SETMASK, &old, NULL);
    return true;
}

/* Until the pool's thread, where there is one, has nothing to do. */
static void pool_rests(hlsnap_pool *pool) {
    bool rests = false;
    uint32_t i;
    for (i = 0; i < 25000 && !rests; i++) {
        if (i) nap();
        pthread_mutex_lock(&pool->lock);
        rests = !pool->threaded || pool->wakes_ns;
        pthread_mutex_unlock(&pool->lock);
    }
}

static void start_pool(void) {
    hlsnap_pool_desc pool = HLSNAP_ZERO;
    pool.sandbox = &host.how;
    pool.max_sandboxes = 2;
    pool.warm = 1; /* which the first sandbox takes: then there is a thread, to make another */
    pool.wait_ns = 20000000000u;
    if (!DO(hlsnap_pool_create(&pool, &host.pool, &last))) return;
    DO(hlsnap_pool_prefetch(host.pool, host.one, 1, &last));
    pool_rests(host.pool);
}

/* Create, create_from, the first snapshots, restores and calls of all kinds. */
static void start(void) {
    hlsnap_guest_desc self = HLSNAP_ZERO, file = HLSNAP_ZERO;
    hlsnap_sandbox_desc limited = host.how;
    hlsnap_sandbox *sb = NULL;
    uint32_t i;
    DO(hlsnap_kvm_probe(&last));
    self.self = &module;
    self.heap_size = 8u << 20;
    file.path = store_guest();
    file.heap_size = 16u << 20;
    if (DO(hlsnap_sandbox_create(&file, &host.how, &sb, &last))) DO(hlsnap_sandbox_snapshot(sb, &host.other, &last));
    hlsnap_sandbox_destroy(sb);
    limited.timeout_ns = 10000000000u;
    limited.cpu_timeout_ns = 10000000000u;
    if (!DO(hlsnap_sandbox_create(&self, &limited, &host.sb, &last))) return;
    host.interrupt = hlsnap_sandbox_get_interrupt(host.sb);
    if (DO(filled(host.sb, 0, 300, 1, 1))) DO(hlsnap_sandbox_snapshot(host.sb, &host.one, &last));
    if (DO(filled(host.sb, 0, 300, 3, 2))) DO(hlsnap_sandbox_snapshot(host.sb, &host.two, &last)); /* scattered pages */
    if (!host.one || !host.two) return;
    for (i = 0; i < HLSNAP_COUNT(host.of); i++)
        if (DO(hlsnap_sandbox_create_from(host.loaded[i], &host.how, &host.of[i], &last))) summed(host.of[i], 200, 600);
    if (DO(hlsnap_sandbox_create_from(host.two, &host.how, &sb, &last))) {
        summed(sb, 300, 400);
        if (DO(hlsnap_sandbox_restore(sb, host.one, &last))) summed(sb, 300, 300);
    }
    hlsnap_sandbox_destroy(sb);
    if (DO(hlsnap_sandbox_restore(host.sb, host.one, &last))) summed(host.sb, 300, 300);
    start_pool();
}

static hlsnap_result spun(uint64_t wall_ns, uint64_t cpu_ns) {
    hlsnap_invocation one;
    memset(&one, 0, sizeof(one));
    last.code = hlsnap_sandbox_find(host.sb, "spin", NULL, &one.target, &last);
    if (last.code) return last.code;
    one.timeout_ns = wall_ns;
    one.cpu_ns = cpu_ns;
    return hlsnap_sandbox_invoke(host.sb, &one, 1, NULL, NULL, &last);
}
static void restored(hlsnap_snapshot *s, uint32_t pages, uint32_t value) {
    if (s && DO(hlsnap_sandbox_restore(host.sb, s, &last))) summed(host.sb, pages, value);
}

/* Whatever ends a call, and what its sandbox is then. */
static void serve_endings(void) {
    const uint64_t minute = 60000000000u;
    ENDS(spun(20 * MS, minute), HLSNAP_ERR_TIMEOUT);
    restored(host.one, 300, 300);
    ENDS(spun(minute, 20 * MS), HLSNAP_ERR_TIMEOUT);
    restored(host.one, 300, 300);
    tell(CANCEL); /* the limit is for a cancel that is refused */
    if (ENDS(spun(5000 * (uint64_t)MS, minute), HLSNAP_ERR_CANCELLED)) told_done();
    tell(NOTHING);
    restored(host.one, 300, 300);
    tell(SIGNAL); /* of a stranger's: nothing ends, and it is given back */
    ENDS(spun(300 * MS, minute), HLSNAP_ERR_TIMEOUT);
    tell(NOTHING);
    restored(host.one, 300, 300);
    ENDS(hlsnap_sandbox_call(host.sb, "fault", HLSNAP_NO_ARGS, NULL, &last), HLSNAP_ERR_FAULT);
    restored(host.one, 300, 300);
}

static void serve_memory(void) {
    hlsnap_region heap = HLSNAP_ZERO;
    const uint32_t word = 4711;
    uint32_t got = 0, i;
    const void *at = NULL;
    hlsnap_snapshot *s = NULL, *scattered = NULL;
    hlsnap_stats stats;
    for (i = 0; host.one && hlsnap_snapshot_region(host.one, i, &heap) && strcmp(heap.kind, "heap") != 0;) i++;
    heap.gva += heap.pages * 4096 - 8;
    if (DO(hlsnap_sandbox_write(host.sb, heap.gva, &word, 4, &last)) && DO(hlsnap_sandbox_read(host.sb, heap.gva, &got, 4, &last)) && got != word)
        wrong("read", got);
    if (DO(hlsnap_sandbox_view(host.sb, heap.gva, 4, &at, &last)) && memcmp(at, &word, 4) != 0) wrong("view", 0);
    hlsnap_sandbox_get_stats(host.sb, &stats);
    for (i = 0; i < HLSNAP_COUNT(host.of); i++) { /* files that nobody guards */
        if (!host.of[i] || !DO(hlsnap_sandbox_write(host.of[i], heap.gva, &word, 4, &last))) continue;
        if (DO(hlsnap_sandbox_read(host.of[i], heap.gva, &got, 4, &last)) && got != word) wrong("read of files", got);
        summed(host.of[i], 200, 600);
        if (DO(hlsnap_sandbox_restore(host.of[i], host.loaded[i], &last))) summed(host.of[i], 200, 600);
    }
    restored(host.one, 300, 300);
    if (DO(filled(host.sb, 0, 300, 1, 5)) && DO(hlsnap_sandbox_snapshot(host.sb, &s, &last))) restored(host.one, 300, 300);
    for (i = 0; i < 8; i++) restored(s, 3, 15); /* pages that rest: mapped instead */
    DO(filled(host.sb, 0, 1000, 1, 7));
    for (i = 0; i < 40; i++) restored(host.one, 3, 3); /* and given back */
    hlsnap_snapshot_release(s);
    if (host.other && DO(hlsnap_sandbox_restore(host.sb, host.other, &last))) { /* another guest */
        hlsnap_value v = HLSNAP_ZERO;
        if (DO(hlsnap_sandbox_call(host.sb, "sum", HLSNAP_ARGS(hlsnap_u32(1)), &v, &last)) && v.as.u32 != 0) wrong("sum of another", v.as.u32);
    }
    restored(host.two, 300, 400);
    if (DO(filled(host.sb, 0, 300, 5, 6)) && DO(hlsnap_sandbox_snapshot(host.sb, &scattered, &last))) {
        hlsnap_sandbox_retire(host.sb);
        restored(scattered, 5, 6 + 1 + 1 + 2 + 1);
    }
    hlsnap_snapshot_release(scattered);
    restored(host.one, 300, 300);
}

/* One sandbox at snapshot one, and one to come. */
static void serve_pool(void) {
    hlsnap_sandbox *a = NULL, *b = NULL, *c = NULL;
    if (!host.pool) return;
    if (DO(hlsnap_pool_acquire(host.pool, host.one, &a, &last))) summed(a, 300, 300);
    if (a) a->pooled.cost_ns = HLSNAP__POOL_SLOW_NS + 1; /* to be put back by the pool's thread */
    hlsnap_pool_release(host.pool, a);
    a = NULL;
    if (DO(hlsnap_pool_acquire(host.pool, host.two, &a, &last))) summed(a, 300, 400); /* moved */
    if (DO(hlsnap_pool_acquire(host.pool, host.one, &b, &last))) summed(b, 300, 300);
    if (a && b) {
        b->pooled.cost_ns = 0;
        host.acquired = b;
        tell(RELEASE); /* once somebody waits */
        if (DO(hlsnap_pool_acquire(host.pool, host.one, &c, &last))) summed(c, 300, 300);
        if (c) told_done();
        if (__atomic_load_n(&host.order, __ATOMIC_ACQUIRE) == NOTHING) b = NULL;
        tell(NOTHING);
    }
    hlsnap_pool_release(host.pool, a);
    hlsnap_pool_release(host.pool, b);
    hlsnap_pool_release(host.pool, c);
}

/* A pool that grows, and starts its thread, while it serves. */
static void serve_late_pool(void) {
    hlsnap_pool_desc desc = HLSNAP_ZERO;
    hlsnap_pool *pool = NULL;
    hlsnap_sandbox *sb = NULL;
    desc.sandbox = &host.how;
    if (!DO(hlsnap_pool_create(&desc, &pool, &last))) return;
    if (DO(hlsnap_pool_acquire(pool, host.one, &sb, &last))) {
        summed(sb, 300, 300);
        sb->pooled.cost_ns = HLSNAP__POOL_SLOW_NS + 1;
        hlsnap_pool_release(pool, sb);
        pool_rests(pool);
    }
    hlsnap_pool_destroy(pool);
}

static void serve(void) {
    hlsnap_invocation two[2];
    hlsnap_value outs[2], args[1];
    uint32_t i;
    memset(two, 0, sizeof(two));
    args[0] = hlsnap_u32(300);
    if (host.sb && DO(hlsnap_sandbox_find(host.sb, "sum", NULL, &two[0].target, &last))) {
        two[0].args = args, two[0].num_args = 1;
        two[1] = two[0];
        if (DO(hlsnap_sandbox_invoke(host.sb, two, 2, outs, NULL, &last)) && (outs[0].as.u32 != 300 || outs[1].as.u32 != 300)) wrong("batch", outs[1].as.u32);
    }
    if (host.sb) serve_endings();
    if (host.sb) serve_memory();
    serve_pool();
    if (host.one) serve_late_pool();
    hlsnap_interrupt_release(host.interrupt);
    hlsnap_sandbox_destroy(host.sb);
    for (i = 0; i < HLSNAP_COUNT(host.of); i++) hlsnap_sandbox_destroy(host.of[i]);
    hlsnap_pool_destroy(host.pool);
}

static bool listing(const char *tag, const hlsnap_oci_digest *digest, uint64_t bytes, void *user) {
    (void)digest, (void)bytes;
    *(uint32_t *)user += tag[0] == 'v';
    return true;
}
static bool listing_info(const char *tag, hlsnap_result r, const hlsnap_oci_info *info, void *user) {
    (void)tag, (void)r, (void)info, (void)user;
    return true;
}

static void store_load(const char *dir, const char *tag, hlsnap_oci_guard guard, bool later) {
    hlsnap_oci_desc oci = HLSNAP_ZERO;
    hlsnap_snapshot *s = NULL;
    uint32_t word = 0;
    oci.guard = guard;
    oci.verify_later = later;
    oci.threads = 2;
    if (DO(hlsnap_oci_load(dir, tag, &oci, &s, NULL, &last))) DO(hlsnap_snapshot_read(s, host.one->guest->layout.regions[0].gva, &word, 4, &last));
    hlsnap_snapshot_release(s);
}

static void store(void) {
    char fresh[220], copy[220];
    hlsnap_oci_desc oci = HLSNAP_ZERO;
    hlsnap_oci_info info;
    uint32_t tags = 0, saved = 0, i;
    uint64_t freed = 0;
    if (!host.one || !host.two) return;
    oci.threads = 2;
    snprintf(fresh, sizeof(fresh), "%s/shared", host.dir);
    snprintf(copy, sizeof(copy), "%s/copy", host.dir);
    saved += DO(hlsnap_oci_save(fresh, "v1", host.one, &oci, NULL, &last));
    saved += DO(hlsnap_oci_save(fresh, "v2", host.two, &oci, NULL, &last));
    for (i = HLSNAP_OCI_GUARD_NONE; i <= HLSNAP_OCI_GUARD_PRIVATE; i++) store_load(fresh, "v2", (hlsnap_oci_guard)i, false);
    store_load(fresh, "v1", HLSNAP_OCI_GUARD_PRIVATE, true);
    if (DO(hlsnap_oci_list(fresh, listing, &tags, &last)) && tags != saved) wrong("tags", tags);
    DO(hlsnap_oci_list_info(fresh, listing_info, NULL, &last));
    DO(hlsnap_oci_get_info(fresh, "v2", &info, &last));
    DO(hlsnap_oci_tag(fresh, "v2", "v3", &last));
    DO(hlsnap_oci_flatten(fresh, "v2", "flat", &oci, NULL, &last));
    DO(hlsnap_oci_copy(fresh, "v2", copy, NULL, NULL, NULL, &last));
    DO(hlsnap_oci_untag(fresh, "v2", &last));
    DO(hlsnap_oci_untag(fresh, "flat", &last));
    DO(hlsnap_oci_gc(fresh, 0, &freed, &last));
    DO(hlsnap_oci_fsck_with(fresh, true, &oci, &last));
}

static void (*const phases[NUM_PHASES])(void) = {start, serve, store};
static void phase_run(enum phase phase) {
    __atomic_store_n(&shared->phase, (int32_t)phase, __ATOMIC_SEQ_CST);
    phases[phase]();
    __atomic_store_n(&shared->phase, (int32_t)PREPARE, __ATOMIC_SEQ_CST);
}

/* ---- >>filters ---- */

/* What the process itself does in the phases, none of which hlsnap does. */
static bool own(uint32_t number) { return number == SYS_exit_group || number == SYS_kill || number == SYS_nanosleep; }

static int filter_install(const struct sock_filter *code, size_t n, unsigned flags) {
    struct sock_fprog program;
    program.len = (unsigned short)n;
    program.filter = (struct sock_filter *)hlsnap__unconst(code);
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)) return -1;
    return (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &program);
}

/* A profile: these and nothing else, for all threads of the process. */
static bool confine(const bool *list) {
    static struct sock_filter code[3 * NUM_CALLS];
    size_t n = 0;
    uint32_t i;
    code[n++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
    for (i = 0; i < NUM_CALLS; i++) {
        if (!list[i] && !own(i)) continue;
        code[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, i, 0, 1);
        code[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    }
    code[n++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS);
    return filter_install(code, n, SECCOMP_FILTER_FLAG_TSYNC) == 0;
}

static bool refuse(uint32_t number) {
    const struct sock_filter code[] = {BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
                                       BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, number, 0, 1), BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
                                       BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)};
    return filter_install(code, HLSNAP_COUNT(code), SECCOMP_FILTER_FLAG_TSYNC) == 0;
}

/* Has every system call told to whoever holds the descriptor. */
static int notify(void) {
    static const struct sock_filter code[] = {BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF)};
    return filter_install(code, 1, SECCOMP_FILTER_FLAG_NEW_LISTENER | SECCOMP_FILTER_FLAG_TSYNC | SECCOMP_FILTER_FLAG_TSYNC_ESRCH);
}

/* ---- >>tests ---- */

static bool kvm_there(void) {
    if (!hlsnap_kvm_probe(&last)) return true;
    test_why = "no KVM";
    return false;
}

static void report_reset(void) { memset(shared, 0, sizeof(*shared)), shared->phase = PREPARE; }
static void report_show(const char *what) {
    if (shared->failed) printf("# %s: %s: %s (errno %d): %s\n", what, shared->what, hlsnap_result_name(shared->code), shared->os_errno, shared->msg);
    if (shared->wrong) printf("# %s: wrong: %s\n", what, shared->wrong_what);
}

/* Starts a child process that does it and ends with 0, or with 1 when a CHECK failed there. */
static pid_t child_start(void (*run)(const void *), const void *user, unsigned seconds) {
    pid_t child;
    fflush(stdout);
    child = fork();
    if (child) return child;
    alarm(seconds);
    test_bad = 0;
    run(user);
    fflush(stdout);
    _exit(test_bad > 0);
}
static int in_a_child(void (*run)(const void *), const void *user, unsigned seconds) {
    int status = -1;
    const pid_t child = child_start(run, user, seconds);
    if (CHECK(child > 0)) waitpid(child, &status, 0);
    return status;
}
static bool exited(int status, int code) { return WIFEXITED(status) && WEXITSTATUS(status) == code; }
static void dir_removed(void) { sh("rm -rf %s/hlsnap-operations-??????", getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp"); }

/* All phases, each system call told. */
static void recorded(const void *user) {
    int32_t fd, i;
    (void)user;
    if (!prepare()) return;
    fd = notify();
    shared->listener_errno = errno;
    __atomic_store_n(&shared->listener, fd < 0 ? -1 : fd, __ATOMIC_SEQ_CST);
    for (i = 0; fd >= 0 && i < NUM_PHASES; i++) phase_run((enum phase)i);
}

/* The child's descriptor of notifications, in this process; -1: there is none, and the child ends. */
static int listener_of(pid_t child) {
    siginfo_t ended;
    int32_t fd;
    int own_fd, pidfd;
    ended.si_pid = 0;
    while (!(fd = __atomic_load_n(&shared->listener, __ATOMIC_SEQ_CST)) && !ended.si_pid) {
        nap();
        waitid(P_PID, (id_t)child, &ended, WEXITED | WNOHANG | WNOWAIT);
    }
    if (fd <= 0) return -1;
    pidfd = (int)syscall(SYS_pidfd_open, child, 0);
    own_fd = (int)syscall(SYS_pidfd_getfd, pidfd, fd, 0);
    if (own_fd < 0) shared->listener_errno = errno, kill(child, SIGKILL);
    close(pidfd);
    return own_fd;
}

/* What the document says of arguments. */
static bool promised(const struct seccomp_data *call) {
    const uint32_t request = (uint32_t)call->args[1];
    if (call->nr == SYS_ioctl) return (request >> 8 & 0xff) == 0xae || request == HLSNAP__PAGEMAP_SCAN || request == HLSNAP__FICLONE;
    return (call->nr != SYS_mmap && call->nr != SYS_mprotect) || !(call->args[2] & PROT_EXEC);
}

/* Lets each call pass, and keeps in which phase it came, until the child has ended. That is asked for: older kernels
   (6.1) say POLLHUP only when it was waited for. */
static void listen_all(int fd, pid_t child, bool seen[NUM_PHASES][NUM_CALLS]) {
    struct pollfd p = {fd, POLLIN, 0};
    for (;;) {
        struct seccomp_notif call;
        struct seccomp_notif_resp answer;
        siginfo_t ended;
        int32_t phase;
        if (poll(&p, 1, 100) < 0 && errno == EINTR) continue;
        ended.si_pid = 0;
        if (!(p.revents & POLLIN)) waitid(P_PID, (id_t)child, &ended, WEXITED | WNOHANG | WNOWAIT);
        if (p.revents & POLLHUP || ended.si_pid) return;
        if (!(p.revents & POLLIN)) continue;
        memset(&call, 0, sizeof(call));
        memset(&answer, 0, sizeof(answer));
        if (ioctl(fd, SECCOMP_IOCTL_NOTIF_RECV, &call)) continue; /* interrupted meanwhile: it comes again */
        phase = __atomic_load_n(&shared->phase, __ATOMIC_SEQ_CST);
        if (phase < NUM_PHASES && (uint32_t)call.data.nr < NUM_CALLS) seen[phase][call.data.nr] = true;
        if (phase < NUM_PHASES && !CHECK(promised(&call.data)))
            printf("# %s: %s(0x%llx, 0x%llx, 0x%llx)\n", labels[phase], hlsnap__syscall_name((uint32_t)call.data.nr),
                   (unsigned long long)call.data.args[0], (unsigned long long)call.data.args[1], (unsigned long long)call.data.args[2]);
        answer.id = call.id;
        answer.flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE;
        ioctl(fd, SECCOMP_IOCTL_NOTIF_SEND, &answer);
    }
}

/* The lists have what the phases use, and nothing else. */
static void names_all(void) {
    static bool seen[NUM_PHASES][NUM_CALLS];
    uint32_t i, k;
    int status = -1, fd;
    pid_t child;
    if (!kvm_there() || !CHECK(lists_read())) return;
    report_reset();
    child = child_start(recorded, NULL, 300);
    fd = listener_of(child);
    if (fd >= 0) listen_all(fd, child, seen);
    if (fd >= 0) close(fd);
    waitpid(child, &status, 0);
    dir_removed();
    if (fd < 0 && shared->listener_errno) {
        test_why = "seccomp tells nobody of system calls here";
        return;
    }
    CHECK(fd >= 0 && exited(status, 0));
    CHECK(shared->steps > 150 && !shared->failed && !shared->wrong);
    report_show("recorded");
    for (k = 0; k < NUM_PHASES; k++)
        for (i = 0; i < NUM_CALLS; i++) {
            if (seen[k][i] && !listed[k][i] && !own(i)) test_bad++, printf("# %s: %s is used, and not in the list\n", labels[k], hlsnap__syscall_name(i));
            if (!seen[k][i] && listed[k][i] && !listed[VARIES][i]) test_bad++, printf("# %s: %s is in the list, and not used\n", labels[k], hlsnap__syscall_name(i));
        }
    for (i = 0; i < NUM_CALLS; i++)
        if (listed[VARIES][i] && !listed[START][i] && !listed[SERVE][i] && !listed[STORE][i])
            test_bad++, printf("# VARIES: %s is in no other list\n", hlsnap__syscall_name(i));
}

/* The phases before it without a filter, then this one under its own list, or with one call refused. */
typedef struct trial { enum phase phase; const bool *list; uint32_t refused; } trial;
static void tried(const void *user) {
    const trial *t = (const trial *)user;
    int32_t i;
    if (!prepare()) return;
    for (i = 0; i < (int32_t)t->phase; i++) phase_run((enum phase)i);
    shared->failed = shared->wrong = shared->steps = 0;
    if (t->list ? confine(t->list) : refuse(t->refused)) phase_run(t->phase);
}

static void confined(void) {
    trial t = {START, NULL, 0};
    if (!kvm_there() || !CHECK(lists_read())) return;
    for (t.phase = START; t.phase < NUM_PHASES; t.phase++) {
        int status;
        t.list = listed[t.phase];
        report_reset();
        status = in_a_child(tried, &t, 120);
        if (!CHECK(exited(status, 0))) printf("# %s: status 0x%x\n", labels[t.phase], (unsigned)status);
        CHECK(shared->steps > 10 && !shared->failed && !shared->wrong);
        report_show(labels[t.phase]);
    }
    dir_removed();
}

/* These are libc's, which takes no refusal of them: it ends the process, or goes on with memory that it does not have. */
static bool vital(uint32_t number) { return number == SYS_brk || number == SYS_exit || number == SYS_futex || number == SYS_rseq; }

/* Every listed call by itself: whatever fails says so. */
static void refused(void) {
    trial t = {START, NULL, 0};
    uint32_t failed = 0;
    if (!kvm_there() || !CHECK(lists_read())) return;
    for (t.phase = START; t.phase < NUM_PHASES; t.phase++)
        for (t.refused = 0; t.refused < NUM_CALLS; t.refused++) {
            const int before = test_bad;
            int status;
            if (!listed[t.phase][t.refused] || vital(t.refused)) continue;
            report_reset();
            status = in_a_child(tried, &t, 60);
            CHECK(exited(status, 0));
            CHECK(!shared->wrong);
            failed += shared->failed > 0;
            if (test_bad == before && !getenv("SHOW")) continue;
            printf("# %s without %s: status 0x%x, %u steps, %u failed\n", labels[t.phase], hlsnap__syscall_name(t.refused), (unsigned)status, shared->steps, shared->failed);
            report_show(hlsnap__syscall_name(t.refused));
        }
    CHECK(failed > 20);
    dir_removed();
}

/* ---- >>costs ---- */

static uint32_t entries(const char *path) {
    DIR *d = opendir(path);
    uint32_t n = 0;
    while (d && readdir(d)) n++;
    if (d) closedir(d);
    return n;
}
static uint32_t mappings(void) {
    FILE *f = fopen("/proc/self/maps", "r");
    uint32_t n = 0;
    int c;
    while (f && (c = fgetc(f)) != EOF) n += c == '\n';
    if (f) fclose(f);
    return n;
}
/* Of this process's memory cgroup, where it has one, in KiB; 0: that cannot be told. */
static uint32_t kernel_memory(void) {
    static const char *const files[] = {"/sys/fs/cgroup/memory%s/memory.kmem.usage_in_bytes", "/sys/fs/cgroup%s/memory.stat"};
    char line[300], path[400], *at;
    unsigned long long bytes = 0;
    FILE *groups = fopen("/proc/self/cgroup", "r"), *f;
    while (groups && !bytes && fgets(line, sizeof(line), groups)) {
        const bool second = strncmp(line, "0::", 3) == 0;
        at = strrchr(line, ':');
        if (!at || (!second && !strstr(line, ":memory:"))) continue;
        at[strcspn(at, "\n")] = 0;
        snprintf(path, sizeof(path), files[second], at + 1);
        f = fopen(path, "r");
        while (f && !bytes && fgets(line, sizeof(line), f)) sscanf(line, second ? "kernel %llu" : "%llu", &bytes);
        if (f) fclose(f);
    }
    if (groups) fclose(groups);
    return (uint32_t)(bytes / 1024);
}
static uint32_t own_memory(void) { /* KiB that no other process has */
    FILE *f = fopen("/proc/self/status", "r");
    char line[300];
    uint32_t n = 0;
    while (f && fgets(line, sizeof(line), f)) sscanf(line, "RssAnon: %u", &n);
    if (f) fclose(f);
    return n;
}
typedef struct held { uint32_t files, tasks, maps, kernel, own; } held;
static held held_now(void) {
    held h;
    h.kernel = kernel_memory();
    h.own = own_memory();
    h.files = entries("/proc/self/fd");
    h.tasks = entries("/proc/self/task");
    h.maps = mappings();
    return h;
}

/* What the document says, as the code below has it. */
static bool documented(const char *text) {
    if (strstr(document, text)) return true;
    printf("# the document does not say: %s\n", text);
    return false;
}

#define MANY 24u
static void costs_of_many(const void *user) {
    hlsnap_sandbox *sb[MANY];
    hlsnap_value v = HLSNAP_ZERO;
    held before, made, called, restored_once, after;
    uint32_t i, runs;
    (void)user;
    if (!prepare()) return;
    phase_run(START);
    if (!host.one) return;
    before = held_now();
    for (i = 0; i < MANY; i++)
        if (!DO(hlsnap_sandbox_create_from(host.one, &host.how, &sb[i], &last))) return;
    runs = sb[0]->memory.num_mapped;
    made = held_now();
    for (i = 0; i < MANY; i++) DO(hlsnap_sandbox_call(sb[i], "sum", HLSNAP_ARGS(hlsnap_u32(1)), &v, &last));
    called = held_now();
    for (i = 0; i < MANY; i++) DO(hlsnap_sandbox_restore(sb[i], host.one, &last));
    restored_once = held_now();
    for (i = 0; i < MANY; i++) hlsnap_sandbox_destroy(sb[i]);
    after = held_now();
    for (i = 0; i < 25000 && after.tasks > before.tasks; i++) nap(), after = held_now();
    printf("# %u sandboxes of %u mapped runs: %u files, %u more once restored, %u tasks, %u mappings\n", MANY, runs, made.files - before.files,
           restored_once.files - made.files, called.tasks - before.tasks, made.maps - before.maps);
    printf("# memory of each, once called: %u KiB of the process; of the kernel %u KiB, %u KiB before the first call%s\n", (called.own - before.own) / MANY,
           (called.kernel - before.kernel) / MANY, (made.kernel - before.kernel) / MANY, made.kernel ? "" : " (not known: no memory cgroup)");
    CHECK(runs > 0);
    CHECK_EQ(made.files - before.files, 2 * MANY);
    CHECK_EQ(restored_once.files - before.files, 3 * MANY);
    CHECK(called.tasks - before.tasks <= MANY && restored_once.tasks == called.tasks);
    CHECK(made.maps - before.maps <= MANY * (5 + 2 * runs) && made.maps - before.maps >= MANY * 4);
    CHECK(after.files == before.files && after.tasks == before.tasks && after.maps <= before.maps + 2); /* malloc's own */
    CHECK(!shared->failed && !shared->wrong);
}

/* A limit, what it says to a sandbox more, or to a call of one, and what the document has. */
typedef struct limit { const char *name; bool (*set)(void); hlsnap_result code; int error; const char *words, *row; } limit;
static bool limit_to(int what, uint64_t n) {
    const struct rlimit r = {n, n};
    return setrlimit((__rlimit_resource_t)what, &r) == 0;
}
static bool few_files(void) { return limit_to(RLIMIT_NOFILE, entries("/proc/self/fd") - 2); }
static bool little_space(void) { return limit_to(RLIMIT_AS, 16u << 20); }
static bool many_mappings(void) {
    uint32_t i;
    for (i = 0; i < 1u << 20; i++)
        if (mmap(NULL, 4096, i % 2 ? PROT_READ : PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED) return true;
    return false; /* vm.max_map_count is very large here */
}
static bool no_signals(void) { return limit_to(RLIMIT_SIGPENDING, 0); }
static bool little_locked(void) { /* root may lock what it likes */
    struct { uint32_t version; int pid; } head = {0x20080522, 0};
    struct { uint32_t effective, permitted, inheritable; } sets[2];
    if (syscall(SYS_capget, &head, sets)) return false;
    sets[0].effective &= ~(1u << 14); /* CAP_IPC_LOCK */
    return syscall(SYS_capset, &head, sets) == 0 && limit_to(RLIMIT_MEMLOCK, 65536) && mlockall(MCL_FUTURE) == 0;
}
static const limit limits[] = {
    {"RLIMIT_NOFILE", few_files, HLSNAP_ERR_OS, EMFILE, "RLIMIT_NOFILE", "| `RLIMIT_NOFILE` | `HLSNAP_ERR_OS`, EMFILE |"},
    {"RLIMIT_AS", little_space, HLSNAP_ERR_MEMORY, ENOMEM, "RLIMIT_AS", "| `RLIMIT_AS` | `HLSNAP_ERR_MEMORY`, ENOMEM |"},
    {"vm.max_map_count", many_mappings, HLSNAP_ERR_MEMORY, ENOMEM, "vm.max_map_count", "| `vm.max_map_count` | `HLSNAP_ERR_MEMORY`, ENOMEM |"},
    {"RLIMIT_SIGPENDING", no_signals, HLSNAP_ERR_OS, EAGAIN, "RLIMIT_SIGPENDING", "| `RLIMIT_SIGPENDING` | `HLSNAP_ERR_OS`, EAGAIN |"},
    {"RLIMIT_MEMLOCK", little_locked, HLSNAP_ERR_OS, EAGAIN, "RLIMIT_MEMLOCK", "| `RLIMIT_MEMLOCK` | `HLSNAP_ERR_OS`, EAGAIN |"}};

static void limited(const void *user) {
    const limit *l = (const limit *)user;
    hlsnap_sandbox_desc how;
    hlsnap_sandbox *sb = NULL;
    hlsnap_result r;
    if (!prepare()) return;
    phase_run(START);
    if (!CHECK_EQ(shared->failed, 0)) return;
    if (!l->set()) _exit(77);
    how = host.how;
    how.timeout_ns = 10000000000u;
    last.code = HLSNAP_OK, last.msg[0] = 0;
    r = hlsnap_sandbox_create_from(host.one, &how, &sb, &last);
    if (!r) r = hlsnap_sandbox_call(sb, "sum", HLSNAP_ARGS(hlsnap_u32(1)), NULL, &last);
    if (!(CHECK_EQ(r, l->code) & CHECK_EQ(last.os_errno, l->error) & CHECK(strstr(last.msg, l->words) != NULL) & CHECK(hlsnap_result_transient(&last))))
        printf("# %s: %s\n", l->name, last.msg);
}

/* The table of costs, and what one gets where a limit is reached. */
static void costs(void) {
    size_t i;
    int status;
    if (!kvm_there() || !CHECK(document || document_read())) return;
    report_reset();
    status = in_a_child(costs_of_many, NULL, 120);
    CHECK(exited(status, 0));
    report_show("costs");
    CHECK(documented("| file descriptors | 2, and 1 more from the first restore on |"));
    CHECK(documented("| tasks | at most 1, from the first call on |"));
    CHECK(documented("| mappings | at most 5, and 2 for each mapped run of pages |"));
    for (i = 0; i < HLSNAP_COUNT(limits); i++) {
        report_reset();
        status = in_a_child(limited, &limits[i], 120);
        if (exited(status, 77)) printf("# note: %s cannot be set here\n", limits[i].name);
        else CHECK(exited(status, 0));
        CHECK(documented(limits[i].row));
    }
    dir_removed();
}

/* ---- >>fork ---- */

static uint32_t kvm_files(void) {
    char path[300], to[64];
    const struct dirent *entry;
    DIR *d = opendir("/proc/self/fd");
    uint32_t n = 0;
    while (d && (entry = readdir(d))) {
        ssize_t size;
        snprintf(path, sizeof(path), "/proc/self/fd/%.255s", entry->d_name);
        size = readlink(path, to, sizeof(to) - 1);
        to[size > 0 ? size : 0] = 0;
        n += strncmp(to, "anon_inode:kvm", 14) == 0;
    }
    if (d) closedir(d);
    return n;
}

/* What a worker finds of its parent's, and what it can do. */
static void worker(const void *user) {
    hlsnap_snapshot *loaded = (hlsnap_snapshot *)hlsnap__unconst(user);
    hlsnap_sandbox *sb = NULL, *of_pool = NULL;
    hlsnap_pool_desc desc = HLSNAP_ZERO;
    hlsnap_pool *pool = NULL;
    uint32_t i, word;
    ENDS(hlsnap_sandbox_call(host.sb, "sum", HLSNAP_ARGS(hlsnap_u32(1)), NULL, &last), HLSNAP_ERR_STATE);
    ENDS(hlsnap_sandbox_read(host.sb, host.one->guest->layout.regions[0].gva, &word, 4, &last), HLSNAP_ERR_STATE);
    ENDS(hlsnap_sandbox_restore(host.sb, host.one, &last), HLSNAP_ERR_STATE);
    ENDS(hlsnap_sandbox_snapshot(host.sb, &host.other, &last), HLSNAP_ERR_STATE);
    ENDS(hlsnap_pool_acquire(host.pool, host.one, &of_pool, &last), HLSNAP_ERR_STATE);
    if (hlsnap_interrupt_cancel(host.interrupt)) wrong("cancel", 1);
    hlsnap_interrupt_release(host.interrupt);
    hlsnap_sandbox_destroy(host.sb);
    for (i = 0; i < HLSNAP_COUNT(host.of); i++) hlsnap_sandbox_destroy(host.of[i]);
    hlsnap_pool_destroy(host.pool);
    if (kvm_files()) wrong("descriptors of VMs left", kvm_files());
    for (i = 0; i < 3; i++) {
        if (!DO(hlsnap_sandbox_create_from(loaded, &host.how, &sb, &last))) continue;
        summed(sb, 200, 600);
        DO(filled(sb, 0, 100, 1, 9));
        if (DO(hlsnap_sandbox_restore(sb, loaded, &last))) summed(sb, 200, 600);
        if (DO(hlsnap_sandbox_restore(sb, host.one, &last))) summed(sb, 300, 300);
        hlsnap_sandbox_destroy(sb);
    }
    desc.sandbox = &host.how;
    if (!DO(hlsnap_pool_create(&desc, &pool, &last))) return;
    if (DO(hlsnap_pool_acquire(pool, loaded, &of_pool, &last))) summed(of_pool, 200, 600);
    hlsnap_pool_release(pool, of_pool);
    hlsnap_pool_destroy(pool);
    CHECK(!shared->failed && !shared->wrong);
}

static void fork_server(const void *user) {
    hlsnap_snapshot *loaded = NULL;
    uint32_t i, kept;
    (void)user;
    if (!prepare()) return;
    phase_run(START);
    if (shared->failed || !DO(hlsnap_oci_load(host.dir, "v1", NULL, &loaded, NULL, &last))) return;
    kept = kvm_files();
    for (i = 0; i < 4; i++) {
        const int status = in_a_child(worker, loaded, 60);
        CHECK(exited(status, 0));
        restored(host.two, 300, 400);
        restored(host.one, 300, 300);
    }
    CHECK_EQ(kvm_files(), kept);
    CHECK(shared->steps > 100);
    phase_run(SERVE);
    CHECK(!shared->failed && !shared->wrong);
}

/* A parent loads, workers serve: snapshots come along, sandboxes and pools do not. */
static void forked_worker(void) {
    int status;
    if (!kvm_there()) return;
    report_reset();
    status = in_a_child(fork_server, NULL, 200);
    CHECK(exited(status, 0));
    report_show("fork");
    dir_removed();
}

static const test_row tests[] = {TEST(names_all), TEST(confined), TEST(refused), TEST(costs), TEST(forked_worker)};
int main(int argc, char **argv) {
    shared = (report *)mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED) return 1;
    return TEST_MAIN(tests, argc, argv);
}

/* test_isolation.c - after a restore nothing of the former tenant is left: not in guest memory, not in the vCPU, not in the mailbox.
   cc: cc -std=gnu11 -O2 -I.. test_isolation.c -o test_isolation       (-lpthread where the C library wants it)
   run: GUEST_DIR=... ./test_isolation [NAME]                           guest_isolation.elf lies in GUEST_DIR
   OPS=n: so many operations instead of 20,000; LONG=1: 200,000; SEED=n: the same decisions again; SVM=1 or VMX=1: a slow
   machine, fewer.

   What it does: a guest attacks (guest_isolation.h: every kind of instruction that CPL 3 has, in every way to leave, with odd
   flags, stacks, selectors and shadows), while the host does what hosts do: restores and calls on threads that come and go, signals
   with handlers, mlockall, populating, swapping, merging and collapsing of the guest's pages by other threads, writes into them by
   another process, forks. The oracle is a sandbox made from the same snapshot that no tenant had: after a restore all stored pages
   must be the snapshot's (as hlsnap_snapshot_read, hlsnap_sandbox_read and the mapping itself show them), the mailbox zero, and
   what the guest's first instructions find, and all that KVM tells of the vCPU, the same as there.
   What it does not prove: anything about timing, caches and what is resident; that a stranger's write into text, constants or the
   identity page is undone (the guest cannot write there, and hlsnap_sandbox_write is watched); vCPU state that neither CPL 3 nor
   KVM's interface shows; memory that a stranger changes while it is put back. Which fault an instruction ends in differs between
   KVMs and is not judged.
   It needs no rights; as root it also makes swap, a memory cgroup and KSM, and takes them back. */
#define HLSNAP_IMPLEMENTATION
#include "hlsnap.h"
#include "hlsnap_kvm.h"
#include "guest_isolation.h"
#include "test.h"
#include <linux/filter.h>
#include <linux/kvm.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/swap.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <termios.h>

#ifndef ISO_GUEST
#define ISO_GUEST "guest_isolation.elf"
#endif

typedef hlsnap_sandbox sandbox;
typedef hlsnap_snapshot snapshot;

/* ---- >>internals: all that this test takes from inside the library ---- */

static uint8_t *window(const sandbox *sb) { return sb->memory.mem; }
static uint64_t window_size(const sandbox *sb) { return sb->memory.layout.pages * 4096; }
static uint8_t *host_address(const sandbox *sb, uint64_t gva) { return window(sb) + (gva - sb->memory.layout.base); }
static int vcpu_of(const sandbox *sb) { return sb->shell ? sb->shell->vcpu : -1; } /* asked anew after each restore */
#define GATE_GVA HLSNAP__SYS_AT(HLSNAP__SYS_GATE)
#define STUBS_GVA HLSNAP__SYS_AT(HLSNAP__SYS_STUBS)
#define SUPERVISOR_GVA HLSNAP__SYS_GVA
#define SUPERVISOR_SIZE HLSNAP__SYS_SIZE

/* ---- >>bench ---- */

static bool is_slow;
static uint64_t seed;

static uint64_t env_number(const char *name, uint64_t otherwise) {
    const char *s = getenv(name);
    return s && *s ? strtoull(s, NULL, 0) : otherwise;
}

static uint64_t mix(uint64_t *state) {
    uint64_t x = *state += 0xd1b54a32d192ed03ull;
    x = (x ^ x >> 32) * 0xdaba0b6eb09322e3ull;
    x = (x ^ x >> 32) * 0xdaba0b6eb09322e3ull;
    return x ^ x >> 32;
}
static uint64_t rnd_state; /* of the thread that decides; the others have their own */
static uint64_t rnd(void) { return mix(&rnd_state); }
static uint64_t below(uint64_t n) { return rnd() % n; }
static bool chance(uint64_t percent) { return below(100) < percent; }

/* The last operations, printed when something failed. */
static char history[40][200];
static uint64_t num_history;
__attribute__((format(printf, 1, 2))) static void remember(const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(history[num_history % HLSNAP_COUNT(history)], sizeof(history[0]), fmt, ap);
    va_end(ap);
    __atomic_add_fetch(&num_history, 1, __ATOMIC_RELEASE);
}
static void history_print(void) {
    uint64_t i = num_history > HLSNAP_COUNT(history) ? num_history - HLSNAP_COUNT(history) : 0;
    for (; i < num_history; i++) printf("# %llu %s\n", (unsigned long long)i, history[i % HLSNAP_COUNT(history)]);
}
static void note(const char *what) { printf("# note: %s\n", what); }

/* Ends a run that stands still, saying where. */
static void *watchdog(void *user) {
    uint64_t seen = 0;
    unsigned idle = 0;
    sigset_t all;
    (void)user;
    sigfillset(&all); /* a signal would end its sleep */
    pthread_sigmask(SIG_SETMASK, &all, NULL);
    for (;;) {
        const uint64_t at = __atomic_load_n(&num_history, __ATOMIC_ACQUIRE);
        sleep(1);
        idle = at == seen ? idle + 1 : 0;
        seen = at;
        if (idle < (is_slow ? 600u : 120u)) continue;
        printf("not ok - nothing has happened for %u seconds, SEED=0x%llx\n", idle, (unsigned long long)seed);
        history_print();
        fflush(stdout);
        _exit(1);
    }
    return NULL;
}

/* ---- >>stranger: another process, which writes into guest memory, and which sets up and takes back what is the machine's ---- */

enum { STRANGER_SETUP, STRANGER_WRITEV, STRANGER_MEM, STRANGER_READV, STRANGER_SQUEEZE, STRANGER_ZERO_PAGES };
enum { CAN_SWAP = 1, CAN_CGROUP = 2, CAN_KSM = 4 };
typedef struct request { uint64_t kind, at, size, seed; } request;
static int stranger = -1, stranger_pid;
static uint32_t machine_can;

static bool file_write(const char *path, const char *text) {
    const int fd = open(path, O_WRONLY | O_CLOEXEC);
    const bool ok = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);
    if (fd >= 0) close(fd);
    return ok;
}
static bool file_read(const char *path, char *to, size_t cap) {
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    const ssize_t n = fd >= 0 ? read(fd, to, cap - 1) : -1;
    if (fd >= 0) close(fd);
    to[n > 0 ? n : 0] = 0;
    return n > 0;
}

/* A swap file in the working directory. */
static char swap_name[64];
static bool swap_on(void) {
    const uint32_t pages = 48 << 8;
    static uint8_t page[4096];
    char all[1024];
    uint32_t i;
    bool ok = true;
    int fd;
    if (file_read("/proc/swaps", all, sizeof(all)) && strchr(all, '\n') && strchr(all, '\n')[1]) return true;
    if (geteuid()) return false;
    snprintf(swap_name, sizeof(swap_name), "isolation.swap.%d", getpid());
    fd = open(swap_name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    for (i = 0; i < pages && ok && fd >= 0; i++) {
        memset(page, 0, sizeof(page));
        if (i == 0) page[1024] = 1, memcpy(page + 1028, &(uint32_t){pages - 1}, 4), memcpy(page + 4086, "SWAPSPACE2", 10);
        ok = write(fd, page, sizeof(page)) == (ssize_t)sizeof(page);
    }
    ok = ok && fd >= 0 && fsync(fd) == 0 && swapon(swap_name, 0) == 0;
    if (fd >= 0) close(fd);
    if (!ok) unlink(swap_name), swap_name[0] = 0;
    return ok;
}

/* A memory cgroup of its own for the parent; `home` is where that was before. */
static char group[256], home[512];
static bool cgroup_enter(void) {
    static const char *const roots[][2] = {{"/sys/fs/cgroup/memory", ":memory:"}, {"/sys/fs/cgroup", "0::"}};
    char path[512], lines[2048], pid[16];
    const char *at;
    size_t i;
    snprintf(path, sizeof(path), "/proc/%d/cgroup", getppid());
    snprintf(pid, sizeof(pid), "%d", getppid());
    if (geteuid() || !file_read(path, lines, sizeof(lines))) return false;
    for (i = 0; i < 2; i++) {
        if (!(at = strstr(lines, roots[i][1]))) continue;
        at += strlen(roots[i][1]);
        snprintf(home, sizeof(home), "%s%.*s/cgroup.procs", roots[i][0], (int)strcspn(at, "\n") % 256, at);
        snprintf(group, sizeof(group), "%s/hlsnap_isolation.%s", roots[i][0], pid);
        if (mkdir(group, 0700)) continue;
        snprintf(path, sizeof(path), "%s/cgroup.procs", group);
        if (file_write(path, pid)) {
            snprintf(path, sizeof(path), "%s/%s", group, i ? "memory.reclaim" : "memory.limit_in_bytes");
            if (access(path, W_OK) == 0) return true;
            file_write(home, pid);
        }
        rmdir(group);
    }
    group[0] = 0;
    return false;
}
/* Presses some of the group's pages out. */
static bool cgroup_squeeze(void) {
    char path[512], text[64];
    unsigned long long used;
    bool ok;
    if (!group[0]) return false;
    snprintf(path, sizeof(path), "%s/memory.reclaim", group);
    if (file_write(path, "2M")) return true;
    snprintf(path, sizeof(path), "%s/memory.usage_in_bytes", group);
    if (!file_read(path, text, sizeof(text)) || (used = strtoull(text, NULL, 10)) < (4u << 20)) return false;
    snprintf(path, sizeof(path), "%s/memory.limit_in_bytes", group);
    snprintf(text, sizeof(text), "%llu", used - used / 4);
    ok = file_write(path, text);
    return file_write(path, "-1") && ok;
}

#define KSM "/sys/kernel/mm/ksm/"
static char ksm_zero[16]; /* what use_zero_pages was; "" where KSM was running, and so is somebody else's */
static bool ksm_on(void) {
    char run[16];
    if (geteuid() || !file_read(KSM "run", run, sizeof(run))) return false;
    if (run[0] == '1') return true;
    return file_read(KSM "use_zero_pages", ksm_zero, sizeof(ksm_zero)) && file_write(KSM "run", "1");
}
static void machine_give_back(void) {
    char pid[16];
    int i;
    if (ksm_zero[0]) file_write(KSM "run", "2"), file_write(KSM "run", "0"), file_write(KSM "use_zero_pages", ksm_zero);
    if (swap_name[0]) swapoff(swap_name), unlink(swap_name);
    snprintf(pid, sizeof(pid), "%d", getppid());
    if (group[0] && getppid() != 1) file_write(home, pid);
    for (i = 0; group[0] && i < 200 && rmdir(group); i++) usleep(10000);
}

static int64_t stranger_write(const request *q, pid_t pid) {
    static uint8_t bytes[65536];
    struct iovec mine, theirs;
    uint64_t x = q->seed;
    char path[64];
    size_t i, n = q->size < sizeof(bytes) ? (size_t)q->size : sizeof(bytes);
    int64_t r;
    int fd;
    for (i = 0; i < n; i++) bytes[i] = (uint8_t)mix(&x);
    mine.iov_base = bytes, mine.iov_len = theirs.iov_len = n, theirs.iov_base = (void *)(uintptr_t)q->at;
    if (q->kind == STRANGER_WRITEV) return syscall(SYS_process_vm_writev, pid, &mine, 1l, &theirs, 1l, 0l);
    if (q->kind == STRANGER_READV) return syscall(SYS_process_vm_readv, pid, &mine, 1l, &theirs, 1l, 0l);
    snprintf(path, sizeof(path), "/proc/%d/mem", pid);
    fd = open(path, O_RDWR | O_CLOEXEC);
    r = fd < 0 ? -1 : pwrite(fd, bytes, n, (off_t)q->at);
    if (fd >= 0) close(fd);
    return r;
}

static void stranger_main(int fd, pid_t parent) {
    request q;
    signal(SIGINT, SIG_IGN); /* it ends when its parent does, and cleans up first */
    signal(SIGTERM, SIG_IGN);
    while (read(fd, &q, sizeof(q)) == (ssize_t)sizeof(q)) {
        int64_t r = 0;
        if (q.kind == STRANGER_SETUP) r = (swap_on() ? CAN_SWAP : 0) | (cgroup_enter() ? CAN_CGROUP : 0) | (ksm_on() ? CAN_KSM : 0);
        else if (q.kind == STRANGER_SQUEEZE) r = cgroup_squeeze();
        else if (q.kind == STRANGER_ZERO_PAGES) r = ksm_zero[0] && file_write(KSM "use_zero_pages", (q.seed | q.at) & 1 ? "1" : "0");
        else r = stranger_write(&q, parent);
        if (write(fd, &r, sizeof(r)) != (ssize_t)sizeof(r)) break;
    }
    machine_give_back();
    _exit(0);
}

static void stranger_send(uint64_t kind, uint64_t at, uint64_t size) {
    const request q = {kind, at, size, rnd()};
    if (write(stranger, &q, sizeof(q)) != (ssize_t)sizeof(q)) test_bad++;
}
static int64_t stranger_answer(void) {
    int64_t r = -1;
    ssize_t n;
    do n = read(stranger, &r, sizeof(r));
    while (n < 0 && errno == EINTR);
    return n == (ssize_t)sizeof(r) ? r : -1;
}
static int64_t ask(uint64_t kind, uint64_t at, uint64_t size) {
    stranger_send(kind, at, size);
    return stranger_answer();
}
static bool stranger_start(void) {
    const pid_t parent = getpid();
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair)) return false;
    fflush(stdout);
    stranger_pid = fork();
    if (stranger_pid == 0) {
        close(pair[0]);
        stranger_main(pair[1], parent);
    }
    close(pair[1]);
    stranger = pair[0];
    prctl(PR_SET_PTRACER, (unsigned long)stranger_pid, 0, 0, 0);
    return stranger_pid > 0;
}
static void stranger_end(void) {
    if (stranger < 0) return;
    close(stranger);
    while (waitpid(stranger_pid, NULL, 0) < 0 && errno == EINTR) { }
    stranger = -1;
}

/* ---- >>threads: where an operation runs ---- */

enum where_kind { ON_MAIN, ON_WORKER, ON_NEW, ON_SAME_NUMBER, NUM_WHERE };
static const char *const where_names[NUM_WHERE] = {"main", "worker", "new", "same number"};
typedef struct job { void (*fn)(void *); void *user; } job;

static pthread_mutex_t worker_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t worker_wake = PTHREAD_COND_INITIALIZER;
static job worker_job;
static long last_tid; /* of the last short-lived thread */

static void *worker(void *user) {
    (void)user;
    pthread_mutex_lock(&worker_lock);
    for (;;) {
        while (!worker_job.fn) pthread_cond_wait(&worker_wake, &worker_lock);
        worker_job.fn(worker_job.user);
        worker_job.fn = NULL;
        pthread_cond_broadcast(&worker_wake);
    }
    return NULL;
}
static void *short_lived(void *user) {
    const job *j = (const job *)user;
    last_tid = syscall(SYS_gettid);
    if (j->fn) j->fn(j->user);
    return NULL;
}
static void on_new(job *j) {
    pthread_t t;
    if (pthread_create(&t, NULL, short_lived, j)) {
        test_bad++;
        return;
    }
    pthread_join(t, NULL);
}

/* The next thread gets the number `want`: told to the kernel where it listens, else by using up all others. */
static bool number_next(long want, bool at_any_cost) {
    job none = {NULL, NULL};
    char text[32];
    long i;
    snprintf(text, sizeof(text), "%ld", want - 1);
    if (file_write("/proc/sys/kernel/ns_last_pid", text)) return true;
    if (!at_any_cost || !file_read("/proc/sys/kernel/pid_max", text, sizeof(text)) || strtol(text, NULL, 10) > 40000) return false;
    for (i = 0; i < 80000; i++) {
        on_new(&none);
        if (last_tid < want && want - last_tid <= 1) return true;
    }
    return false;
}

static void run_on(enum where_kind where, void (*fn)(void *), void *user) {
    job j = {fn, user};
    if (where == ON_MAIN) fn(user);
    else if (where == ON_WORKER) {
        pthread_mutex_lock(&worker_lock);
        worker_job = j;
        pthread_cond_broadcast(&worker_wake);
        while (worker_job.fn) pthread_cond_wait(&worker_wake, &worker_lock);
        pthread_mutex_unlock(&worker_lock);
    } else {
        if (where == ON_SAME_NUMBER && last_tid) number_next(last_tid, false);
        on_new(&j);
    }
}

/* ---- >>noise: a thread that does things to the guest's memory, and to the call, while the guest runs ---- */

enum { NOISE_POPULATE_WRITE = 1, NOISE_POPULATE_READ = 2, NOISE_PAGEOUT = 4, NOISE_MLOCK = 8, NOISE_SIGNAL = 16, NOISE_CANCEL = 32, NOISE_COLLAPSE = 64,
       NOISE_ALL = 127 };
static uint32_t noise_mask, noise_busy; /* atomic */
static uint8_t *noise_at;
static uint64_t noise_size;
static hlsnap_interrupt *noise_interrupt;
static pthread_t main_thread;
#define POPULATE_READ 22
#define POPULATE_WRITE 23
#define COLLAPSE 25
#define PAGEOUT 21

static void noise_once(uint32_t mask, uint64_t *state) {
    const uint64_t pages = noise_size / 4096, first = mix(state) % pages, n = 1 + mix(state) % (pages - first);
    uint8_t *at = noise_at + first * 4096;
    switch (1u << mix(state) % 7 & mask) {
    case NOISE_POPULATE_WRITE: madvise(at, n * 4096, POPULATE_WRITE); break;
    case NOISE_POPULATE_READ: madvise(at, n * 4096, POPULATE_READ); break;
    case NOISE_PAGEOUT: madvise(at, n * 4096, PAGEOUT); break;
    case NOISE_MLOCK: mlock(at, n * 4096), munlock(at, n * 4096); break;
    case NOISE_SIGNAL: pthread_kill(main_thread, SIGUSR1); break;
    case NOISE_CANCEL: hlsnap_interrupt_cancel(noise_interrupt); break;
    case NOISE_COLLAPSE: madvise(noise_at, noise_size, COLLAPSE); break;
    default: break;
    }
}
static void *noise(void *user) {
    uint64_t state = seed ^ 0x6e6f697365;
    (void)user;
    for (;;) {
        uint32_t mask;
        __atomic_store_n(&noise_busy, 1, __ATOMIC_SEQ_CST);
        mask = __atomic_load_n(&noise_mask, __ATOMIC_SEQ_CST);
        if (mask) noise_once(mask, &state);
        __atomic_store_n(&noise_busy, 0, __ATOMIC_SEQ_CST);
        usleep(mask ? (useconds_t)(mix(&state) % 60) : 300);
    }
    return NULL;
}
static void noise_off(void) {
    __atomic_store_n(&noise_mask, 0, __ATOMIC_SEQ_CST);
    while (__atomic_load_n(&noise_busy, __ATOMIC_SEQ_CST)) sched_yield();
}
static void noise_on(uint32_t mask, const sandbox *sb, hlsnap_interrupt *h) {
    noise_off();
    noise_at = window(sb), noise_size = window_size(sb), noise_interrupt = h;
    if (!h) mask &= ~(uint32_t)NOISE_CANCEL;
    __atomic_store_n(&noise_mask, mask, __ATOMIC_SEQ_CST);
}

static uint64_t num_signals;
static hlsnap_interrupt *handler_cancels; /* atomic: what the handler cancels, or NULL */
static uint64_t storm_us;          /* atomic; 0: no SIGALRM */
/* The next one comes after a quarter of storm_us to four times it: at a steady pace, on a busy machine, nothing would get done. */
static void storm_next(void) {
    const uint64_t us = __atomic_load_n(&storm_us, __ATOMIC_RELAXED);
    const uint32_t n = (uint32_t)__atomic_load_n(&num_signals, __ATOMIC_RELAXED) * 2654435761u >> 28;
    struct itimerval t = {{0, 0}, {0, 0}};
    t.it_value.tv_usec = (suseconds_t)(us / 4 * (1 + n) % 999999);
    setitimer(ITIMER_REAL, &t, NULL);
}
static void on_signal(int sig) {
    volatile uint8_t stack[3000]; /* a handler that needs room */
    stack[sig] = stack[2999 - sig] = 1;
    if (__atomic_add_fetch(&num_signals, 1, __ATOMIC_RELAXED) % 4 == 0) hlsnap_interrupt_cancel(__atomic_load_n(&handler_cancels, __ATOMIC_ACQUIRE));
    if (sig == SIGALRM) storm_next();
}
static void storm_set(uint64_t us) {
    __atomic_store_n(&storm_us, us, __ATOMIC_RELAXED);
    storm_next();
}
static void quiet(void) { /* nobody cancels anything any more */
    noise_off();
    __atomic_store_n(&handler_cancels, NULL, __ATOMIC_RELEASE);
    storm_set(0);
}

/* ---- >>vcpu: all that KVM tells of it ---- */

#define MAX_MSRS 40
static const uint32_t msr_numbers[MAX_MSRS] = {
    0xc0000080, 0xc0000081, 0xc0000082, 0xc0000083, 0xc0000084, 0xc0000100, 0xc0000101, 0xc0000102, 0xc0000103, /* EFER .. TSC_AUX */
    0x174, 0x175, 0x176, 0x48, 0x49, 0x1a0, 0x1d9, 0xe1, 0x122, 0x277, 0x1c4, 0x1c5, 0x6a0, 0x6a2, 0x6a4, 0x6a7, 0xda0, 0xd90, 0x140, 0x1b0,
    0xc001011f, 0xc0010117, 0xc0010114, 0x38f, 0x390, 0x309, 0x186, 0x345, 0x2ff, 0x3a, 0x8b};
typedef struct msr_list { uint32_t num, padding; struct kvm_msr_entry rows[MAX_MSRS]; } msr_list;
static msr_list msrs_readable;

typedef struct vcpu_state {
    struct kvm_regs regs;
    struct kvm_sregs sregs;
    struct kvm_vcpu_events events;
    struct kvm_debugregs debug;
    uint8_t xsave[4096]; /* struct kvm_xsave */
    struct kvm_xcrs xcrs;
    msr_list msrs;
    uint32_t told; /* bits: which of these KVM told */
} vcpu_state;
typedef struct vcpu_part { const char *name; unsigned long request; size_t at, size; } vcpu_part;
#define PART(member, request) {#member, request, offsetof(vcpu_state, member), sizeof(((vcpu_state *)0)->member)}
static const vcpu_part vcpu_parts[] = {PART(regs, KVM_GET_REGS), PART(sregs, KVM_GET_SREGS), PART(events, KVM_GET_VCPU_EVENTS),
    PART(debug, KVM_GET_DEBUGREGS), PART(xsave, KVM_GET_XSAVE), PART(xcrs, KVM_GET_XCRS), PART(msrs, KVM_GET_MSRS)};

static void vcpu_read(const sandbox *sb, vcpu_state *s) {
    const int fd = vcpu_of(sb);
    size_t i;
    memset(s, 0, sizeof(*s));
    s->msrs = msrs_readable;
    for (i = 0; i < HLSNAP_COUNT(vcpu_parts); i++)
        if (hlsnap__ioctl(fd, vcpu_parts[i].request, (uintptr_t)s + vcpu_parts[i].at) >= 0) s->told |= 1u << i;
    memset(s->xsave + 512, 0, 8); /* XSTATE_BV: which components are in use, not what they hold */
}
/* Each MSR that this KVM knows; one that it does not know would end the list. */
static void msrs_find(const sandbox *sb) {
    msr_list one;
    uint32_t i;
    msrs_readable.num = 0;
    for (i = 0; i < MAX_MSRS; i++) {
        memset(&one, 0, sizeof(one));
        one.num = 1, one.rows[0].index = msr_numbers[i];
        if (hlsnap__ioctl(vcpu_of(sb), KVM_GET_MSRS, (uintptr_t)&one) == 1) msrs_readable.rows[msrs_readable.num++] = one.rows[0];
    }
}

static bool bytes_same(const char *what, const void *seen, const void *right, size_t n) {
    const uint8_t *a = (const uint8_t *)seen, *b = (const uint8_t *)right;
    size_t i, bad = 0, first = n;
    if (memcmp(a, b, n) == 0) return true;
    for (i = 0; i < n; i++)
        if (a[i] != b[i] && bad++ == 0) first = i;
    printf("# LEFT OVER: %s: %zu bytes differ, the first at %zu:", what, bad, first);
    for (i = first & ~(size_t)7; i < n && i < (first & ~(size_t)7) + 16; i++) printf(" %02x", a[i]);
    printf(", not");
    for (i = first & ~(size_t)7; i < n && i < (first & ~(size_t)7) + 16; i++) printf(" %02x", b[i]);
    printf("\n");
    return false;
}

/* ---- >>world: guests, their snapshots, sandboxes ---- */

typedef struct shape { /* of a guest's memory */
    hlsnap_region regions[32];
    uint32_t num;
    uint64_t stored; /* bytes */
    hlsnap_region mailbox, identity;
} shape;
typedef struct shot {
    snapshot *s;
    shape shape;
    uint8_t *bytes;    /* stored regions, one behind the other */
    bool has_oracle;
    iso_dump dump;     /* what the first instructions find in a sandbox that no tenant had */
    vcpu_state vcpu;   /* and what KVM tells of its vCPU then */
    uint8_t identity[4096];
    uint32_t heap;
} shot;

#define NUM_BASES 3
#define MAX_SHOTS 9
#define NUM_SANDBOXES 3
static const uint64_t base_heaps[NUM_BASES] = {192 << 10, 192 << 10, 4608 << 10}; /* two alike, one with room for a huge page */
static shot *shots;
static uint32_t num_shots;
static sandbox *boxes[NUM_SANDBOXES];
static uint32_t box_at[NUM_SANDBOXES]; /* the shot that each was last put to, by its place, where another one may stand by now */
static shape box_shape[NUM_SANDBOXES];
static hlsnap_interrupt *interrupts[NUM_SANDBOXES];
static iso_where at;
static uint8_t last_id[16];
static hlsnap_error last;
static uint64_t num_restores, num_checks, num_probes, num_results[64];
static int host_act; /* what the host function does while the guest waits */
static sandbox *host_box;
static char guest_file[512];

static hlsnap_result host_thing(hlsnap_call *call, void *user) {
    uint8_t bytes[300];
    sandbox *sb = host_box;
    (void)user;
    if (sb && host_act == 1) hlsnap_sandbox_read(sb, at.bss + below(4096), bytes, sizeof(bytes), NULL);
    if (sb && host_act == 2) memset(bytes, 0xa5, sizeof(bytes)), hlsnap_sandbox_write(sb, at.bss + below(8192), bytes, sizeof(bytes), NULL);
    if (sb && host_act == 3) madvise(window(sb), window_size(sb), POPULATE_WRITE);
    if (sb && host_act == 4) ask(STRANGER_WRITEV, (uint64_t)(uintptr_t)host_address(sb, at.bss + 4096 * below(20)), 5000);
    if (host_act == 5) raise(SIGUSR1);
    if (host_act == 6) return hlsnap_call_fail(call, 9, "no");
    return hlsnap_call_return(call, hlsnap_u64(hlsnap_call_arg(call, 0).as.u64 + 1));
}
static const hlsnap_function host_functions[] = {{"host_thing", "u64(u64)", host_thing, NULL}};

static void desc_fill(hlsnap_sandbox_desc *d) {
    static const hlsnap_sandbox_desc zero = HLSNAP_ZERO;
    *d = zero;
    d->hypervisor = hlsnap_kvm();
    d->functions = host_functions;
    d->num_functions = 1;
    d->timeout_ns = is_slow ? 3000000000 : 30000000; /* a guest whose stack or runtime was overwritten may loop */
}
static sandbox *box_from(snapshot *s) {
    hlsnap_sandbox_desc d;
    sandbox *sb = NULL;
    desc_fill(&d);
    if (hlsnap_sandbox_create_from(s, &d, &sb, &last)) printf("# create_from: %s: %s\n", hlsnap_result_name(last.code), last.msg);
    return sb;
}
static sandbox *box_new(uint64_t heap) {
    static int made;
    hlsnap_guest_desc g = HLSNAP_ZERO;
    hlsnap_sandbox_desc d;
    sandbox *sb = NULL;
    desc_fill(&d);
    d.timeout_ns = 10000000000;
    g.heap_size = heap, g.stack_size = 32 << 10, g.mailbox_size = 16 << 10, g.path = guest_file;
    g.prefault = made++ % 2 ? HLSNAP_PREFAULT_LEARN : HLSNAP_PREFAULT_OFF;
    if (hlsnap_sandbox_create(&g, &d, &sb, &last)) printf("# create: %s: %s\n", hlsnap_result_name(last.code), last.msg);
    return sb;
}

static bool shape_of(const snapshot *s, shape *to) {
    hlsnap_region r;
    memset(to, 0, sizeof(*to));
    for (; to->num < HLSNAP_COUNT(to->regions) && hlsnap_snapshot_region(s, to->num, &r); to->num++) {
        to->regions[to->num] = r;
        if (r.stored) to->stored += r.pages * 4096;
        if (strcmp(r.kind, "mailbox") == 0) to->mailbox = r;
        if (strcmp(r.kind, "identity") == 0) to->identity = r;
    }
    return to->mailbox.pages && to->identity.pages;
}
static const hlsnap_region *region_named(const shape *s, const char *kind) { /* the last one of that kind */
    const hlsnap_region *found = &s->regions[0];
    uint32_t i;
    for (i = 0; i < s->num; i++)
        if (strcmp(s->regions[i].kind, kind) == 0) found = &s->regions[i];
    return found;
}

/* What differs at every start: thread control block's random words, id, entropy, generation. */
static void identity_blank(uint8_t *page) {
    uint8_t *id = page + HLSNAP_ABI_IDENTITY_OFFSET;
    memset(page + 0x28, 0, 16);
    memset(id + offsetof(hlsnap_abi_identity, id), 0, 16 + 32 + 8);
}

/* On AMD CPUs that leave x87 pointers out of XSAVE, Linux overwrites them with its own when it switches: CS is the kernel's then. Those
   are nobody's who was in the VM. */
static void x87_blank(uint8_t *env) {
    static const uint8_t kernel_cs[2] = {0x10, 0};
    if (memcmp(env + 16, kernel_cs, 2) == 0) memset(env + 12, 0, 16);
}

/* The probe: export 0, which the guest's entry answers by itself. */
static bool probe_read(sandbox *sb, snapshot *s, iso_dump *dump, vcpu_state *vcpu) {
    hlsnap_result r = hlsnap_sandbox_call(sb, "probe", HLSNAP_NO_ARGS, NULL, &last);
    int tries;
    for (tries = 0; tries < 8 && (r == HLSNAP_ERR_CANCELLED || r == HLSNAP_ERR_TIMEOUT); tries++) { /* noise cancels whatever it meets */
        if (tries == 7) quiet(); /* where an exit takes longer than the noise pauses */
        r = hlsnap_sandbox_restore(sb, s, &last);
        if (!r) r = hlsnap_sandbox_call(sb, "probe", HLSNAP_NO_ARGS, NULL, &last);
    }
    if (r || hlsnap_sandbox_read(sb, at.dump, dump, sizeof(*dump), NULL)) return false;
    vcpu_read(sb, vcpu);
    memset(dump->xsave + 512, 0, 8); /* XSTATE_BV */
    x87_blank(dump->fpu);
    dump->flags &= ~0x44ull;         /* ZF and PF are the gate's, where it clears vector state */
    return true;
}

static void shot_release(shot *t) {
    hlsnap_snapshot_release(t->s);
    free(t->bytes);
    memset(t, 0, sizeof(*t));
}

/* Reads what the snapshot holds, and asks a sandbox that nobody had what is right. false when the guest in it does not even start. */
static bool shot_make(shot *t, snapshot *s) {
    sandbox *sb;
    uint64_t off = 0;
    uint32_t i;
    memset(t, 0, sizeof(*t));
    t->s = s;
    if (!CHECK(shape_of(s, &t->shape)) || !CHECK((t->bytes = (uint8_t *)malloc(t->shape.stored)) != NULL)) return false;
    for (i = 0; i < t->shape.num; i++) {
        const hlsnap_region *r = &t->shape.regions[i];
        if (!r->stored) continue;
        if (!CHECK_EQ(hlsnap_snapshot_read(s, r->gva, t->bytes + off, r->pages * 4096, &last), HLSNAP_OK)) return false;
        off += r->pages * 4096;
    }
    sb = box_from(s);
    if (!CHECK(sb != NULL)) return false;
    CHECK_EQ(hlsnap_sandbox_read(sb, t->shape.identity.gva, t->identity, 4096, NULL), HLSNAP_OK);
    identity_blank(t->identity);
    t->has_oracle = probe_read(sb, s, &t->dump, &t->vcpu);
    hlsnap_sandbox_destroy(sb);
    return t->has_oracle;
}

/* ---- >>check: the same as in a sandbox that no tenant had ---- */

static uint8_t *room; /* for the largest region */
static size_t room_size;

static bool region_same(const hlsnap_region *r, const uint8_t *right, const char *how, const uint8_t *seen) {
    char what[160];
    uint64_t page, bad = 0, first = 0;
    if (memcmp(seen, right, r->pages * 4096) == 0) return true;
    for (page = 0; page < r->pages; page++)
        if (memcmp(seen + page * 4096, right + page * 4096, 4096) && bad++ == 0) first = page;
    snprintf(what, sizeof(what), "%s (%s): %llu of %llu pages, page %llu at 0x%llx", r->kind, how, (unsigned long long)bad, (unsigned long long)r->pages,
             (unsigned long long)first, (unsigned long long)(r->gva + first * 4096));
    bytes_same(what, seen + first * 4096, right + first * 4096, 4096);
    test_bad++;
    return false;
}

static void check_memory(sandbox *sb, const shot *t) {
    static const uint8_t zero[16 << 10];
    const uint8_t *right = t->bytes;
    uint8_t page[4096], *id = page + HLSNAP_ABI_IDENTITY_OFFSET + offsetof(hlsnap_abi_identity, id);
    uint32_t i;
    num_checks++;
    for (i = 0; i < t->shape.num; i++) {
        const hlsnap_region *r = &t->shape.regions[i];
        if (!r->stored) continue;
        if (room_size < r->pages * 4096) room = (uint8_t *)realloc(room, room_size = r->pages * 4096);
        if (!CHECK_EQ(hlsnap_sandbox_read(sb, r->gva, room, r->pages * 4096, &last), HLSNAP_OK)) return;
        if (!region_same(r, right, "read", room) || !region_same(r, right, "mapping", host_address(sb, r->gva))) return;
        if (below(32) == 0 && CHECK_EQ(hlsnap_snapshot_read(t->s, r->gva, room, r->pages * 4096, &last), HLSNAP_OK))
            region_same(r, right, "snapshot", room);
        right += r->pages * 4096;
    }
    region_same(&t->shape.mailbox, zero, "mapping", host_address(sb, t->shape.mailbox.gva));
    CHECK_EQ(hlsnap_sandbox_read(sb, t->shape.identity.gva, page, 4096, NULL), HLSNAP_OK);
    CHECK(memcmp(page, host_address(sb, t->shape.identity.gva), 4096) == 0);
    CHECK(memcmp(id, last_id, 16) != 0);
    memcpy(last_id, id, 16);
    identity_blank(page);
    CHECK(bytes_same("identity page", page, t->identity, 4096));
}

/* The first entry after a restore. */
static void check_vcpu(sandbox *sb, const shot *t) {
    static iso_dump dump;
    static vcpu_state vcpu;
    size_t i;
    num_probes++;
    if (!CHECK(probe_read(sb, t->s, &dump, &vcpu))) {
        printf("# probe: %s: %s\n", hlsnap_result_name(last.code), last.msg);
        return;
    }
    CHECK(bytes_same("registers at the entry", &dump, &t->dump, offsetof(iso_dump, xsave)));
    CHECK(bytes_same("vector state at the entry", dump.xsave, t->dump.xsave, sizeof(dump.xsave)));
    CHECK_EQ(vcpu.told, t->vcpu.told);
    for (i = 0; i < HLSNAP_COUNT(vcpu_parts); i++)
        if (vcpu.told & t->vcpu.told & 1u << i)
            CHECK(bytes_same(vcpu_parts[i].name, (const uint8_t *)&vcpu + vcpu_parts[i].at, (const uint8_t *)&t->vcpu + vcpu_parts[i].at, vcpu_parts[i].size));
}

/* ---- >>operations ---- */

static enum where_kind where_now; /* the next operation runs there */
typedef struct task { sandbox *sb; shot *to; const char *name; const hlsnap_value *args; size_t num_args; uint64_t limit_ns; hlsnap_result result; snapshot *taken; } task;

static void task_restore(void *user) {
    task *t = (task *)user;
    t->result = hlsnap_sandbox_restore(t->sb, t->to->s, &last);
}
/* What a KVM that does not save the data selectors would leave in the host's thread: ds es fs gs, FS and GS base. */
typedef struct thread_segments { uint64_t at[6]; } thread_segments;
static thread_segments segments_get(void) {
    thread_segments s;
    unsigned ds, es, fs, gs;
    __asm__ volatile("mov %%ds,%0; mov %%es,%1; mov %%fs,%2; mov %%gs,%3" : "=r"(ds), "=r"(es), "=r"(fs), "=r"(gs));
    s.at[0] = ds, s.at[1] = es, s.at[2] = fs, s.at[3] = gs, s.at[4] = s.at[5] = 0;
    syscall(SYS_arch_prctl, 0x1003, &s.at[4]);
    syscall(SYS_arch_prctl, 0x1004, &s.at[5]);
    return s;
}
static void task_call(void *user) {
    const thread_segments own = segments_get();
    thread_segments now;
    task *t = (task *)user;
    hlsnap_invocation one = HLSNAP_ZERO;
    last.msg[0] = 0;
    t->result = hlsnap_sandbox_find(t->sb, t->name, NULL, &one.target, &last);
    one.args = t->args, one.num_args = t->num_args, one.timeout_ns = t->limit_ns;
    if (!t->result) t->result = hlsnap_sandbox_invoke(t->sb, &one, 1, NULL, NULL, &last);
    now = segments_get();
    CHECK(bytes_same("segments of the host's thread", &now, &own, sizeof(own)));
}
static void task_take(void *user) {
    task *t = (task *)user;
    t->result = hlsnap_sandbox_snapshot(t->sb, &t->taken, &last);
}

static void restore_to(sandbox *sb, shot *t) {
    task k = {sb, t, NULL, NULL, 0, 0, HLSNAP_OK, NULL};
    uint32_t box;
    num_restores++;
    run_on(where_now, task_restore, &k);
    if (!CHECK_EQ(k.result, HLSNAP_OK)) printf("# restore: %s\n", last.msg);
    for (box = 0; box < NUM_SANDBOXES; box++)
        if (boxes[box] == sb) box_at[box] = (uint32_t)(t - shots), box_shape[box] = t->shape;
}
/* How a hostile call may end: in its own result, or in one that says what the guest did. */
static hlsnap_result call_on(sandbox *sb, const char *name, const hlsnap_value *args, size_t num, uint64_t limit_ns) {
    task k = {sb, NULL, name, args, num, limit_ns, HLSNAP_OK, NULL};
    run_on(where_now, task_call, &k);
    num_results[(uint32_t)k.result % 64]++;
    switch (k.result) {
    case HLSNAP_OK: case HLSNAP_ERR_FUNCTION: case HLSNAP_ERR_SIGNATURE: case HLSNAP_ERR_LIMIT: case HLSNAP_ERR_FAULT: case HLSNAP_ERR_ABORT:
    case HLSNAP_ERR_CANCELLED: case HLSNAP_ERR_TIMEOUT: case HLSNAP_ERR_PROTOCOL: break;
    case HLSNAP_ERR_HYPERVISOR: if (num_results[(uint32_t)k.result % 64] <= 3) printf("# note: %s\n", last.msg); break;
    default: printf("# %s: %s: %s\n", name, hlsnap_result_name(k.result), last.msg), test_bad++; break;
    }
    return k.result;
}
static bool is_ready(const sandbox *sb) { return hlsnap_sandbox_get_state(sb) == HLSNAP_READY; }

static uint64_t hostile_address(const shape *s) {
    static const uint64_t fixed[] = {0, 1, 0xffe, 0x7ffffffff000, 0x7fffffffffff, 0x800000000000, 0x8000000000000000, 0xffff800000000000,
        0xffffffff81000000, 0xfffffffffffffff8, 0x10000, 0x7f0000000000};
    const hlsnap_region *r = &s->regions[below(s->num)];
    switch (below(10)) {
    case 0: return fixed[below(HLSNAP_COUNT(fixed))];
    case 1: return GATE_GVA + below(48);
    case 2: return STUBS_GVA + below(130);
    case 3: return SUPERVISOR_GVA + below(SUPERVISOR_SIZE);
    case 4: return at.text + below(4096);
    case 5: return r->gva - 1 + below(3);
    case 6: return at.code32 + 16 * below(at.code32_size / 16);
    case 7: return rnd();
    default: return r->gva + below(r->pages * 4096);
    }
}
static uint32_t hostile_selector(void) {
    static const uint8_t fixed[] = {0x23, 0x1b, 0x33, 0x2b, 0x08, 0x10, 0x0b, 0x13, 0x28, 0x30, 0x38, 0x07, 0x0f, 0x17, 0x1f, 0x27, 0x2f, 0x3b, 3, 0x53, 0x63, 0x7b};
    return chance(70) ? fixed[below(HLSNAP_COUNT(fixed))] : (uint32_t)below(65536);
}

#define EVERY(name, every, text) every,
#define NAME(name, every, text) #name,
static const uint8_t disturb_every[] = {ISO_DISTURBS(EVERY)}, ending_every[] = {ISO_ENDINGS(EVERY)};
static const char *const disturb_names[] = {ISO_DISTURBS(NAME)}, *const ending_names[] = {ISO_ENDINGS(NAME)};
static uint32_t pick(const uint8_t *every, uint32_t num) {
    uint32_t i;
    do i = (uint32_t)below(num);
    while (below(every[i]));
    return i;
}
static uint32_t ending_named(const char *name) {
    uint32_t i = 0;
    while (i < ISO_NUM_ENDINGS && strcmp(ending_names[i], name)) i++;
    return i;
}
static uint32_t disturb_named(const char *name) { /* for an order */
    uint32_t i = 0;
    while (i < ISO_NUM_DISTURBS && strcmp(disturb_names[i], name)) i++;
    return i + 1;
}

static void order_random(iso_order *o, const shape *s) {
    static const uint32_t ports[] = {0xe0, 0xe1, 0x20, 0x2e, 0x80, 0x60, 0x3f8, 0xdf}, counts[] = {0, 1, 2, 100, 5000, 0xffffffff};
    static const uint64_t flags[] = {0x100, 0x400, 0x4000, 0x40000, 0x200000, 0x10000, 0x3000, 0x20000, 0x8d5, 0x200, 0x180000};
    uint32_t i;
    memset(o, 0, sizeof(*o));
    for (i = 0; i < ISO_NUM_DISTURB; i++) o->disturb[i] = chance(60) ? 1 + pick(disturb_every, ISO_NUM_DISTURBS) : 0;
    o->ending = pick(ending_every, ISO_NUM_ENDINGS);
    o->how = (uint32_t)below(ISO_NUM_HOW);
    o->reply = chance(60);
    o->count = counts[below(HLSNAP_COUNT(counts))];
    o->port = chance(90) ? ports[below(HLSNAP_COUNT(ports))] : (uint32_t)below(65536);
    o->arg = chance(40) ? hostile_address(s) : chance(20) ? hostile_selector() : rnd();
    o->rflags = 2;
    for (i = 0; i < HLSNAP_COUNT(flags); i++)
        if (chance(i ? 12 : 3)) o->rflags |= flags[i];
    if (o->how == ISO_TF_SHADOW && chance(90)) o->rflags |= 0x100;
    if (chance(o->how == ISO_TF_SHADOW ? 5 : 35)) o->rsp = hostile_address(s);
    if (chance(50)) o->rip = chance(30) ? at.code32 + 16 * below(at.code32_size / 16) : hostile_address(s);
    if (chance(60)) o->cs = o->rip >= at.code32 && o->rip < at.code32 + at.code32_size ? 0x23 : hostile_selector();
    if (chance(40)) o->ss = chance(50) ? 0x2b : hostile_selector();
}
static void order_remember(const iso_order *o, uint32_t box, const char *result) {
    static const char *const how[] = {"", "+shadow", "+tf+shadow"};
    char before[120] = "";
    uint32_t i;
    for (i = 0; i < ISO_NUM_DISTURB; i++)
        if (o->disturb[i]) snprintf(before + strlen(before), sizeof(before) - strlen(before), "%s ", disturb_names[(o->disturb[i] - 1) % ISO_NUM_DISTURBS]);
    remember("box %u on %s: attack %s-> %s%s%s arg 0x%llx flags 0x%llx rsp 0x%llx frame %x:0x%llx: %s", box, where_names[where_now], before,
             ending_names[o->ending % ISO_NUM_ENDINGS], how[o->how % ISO_NUM_HOW], o->reply ? " with reply" : "", (unsigned long long)o->arg,
             (unsigned long long)o->rflags, (unsigned long long)o->rsp, o->cs, (unsigned long long)o->rip, result);
}
static void attack(uint32_t box, const iso_order *o) {
    const hlsnap_value v = hlsnap_bytes(o, sizeof(*o));
    hlsnap_result r;
    order_remember(o, box, "..."); /* in case it hangs */
    r = call_on(boxes[box], "attack", &v, 1, is_slow ? 60000000 : 1500000 + below(1000000));
    num_history--;
    order_remember(o, box, hlsnap_result_name(r) + 7);
}

static bool shape_same(const shape *a, const shape *b) { return a->num == b->num && a->stored == b->stored; }

/* The heart: any state, restore, all of it as in a sandbox that nobody had. */
static void op_restore(uint32_t box, bool everything) {
    const uint64_t dice = below(100);
    uint32_t to = dice < 50 && box_at[box] < num_shots ? box_at[box] : (uint32_t)below(num_shots);
    if (dice < 90 && !shape_same(&shots[to].shape, &shots[box].shape) && dice >= 50) to = box;
    remember("box %u on %s: restore to shot %u from %s", box, where_names[where_now], to, is_ready(boxes[box]) ? "ready" : "poisoned");
    restore_to(boxes[box], &shots[to]);
    if (test_bad) return;
    if (chance(25)) noise_off();
    if (everything || chance(75)) check_memory(boxes[box], &shots[to]);
    if (!test_bad && (everything || chance(60))) check_vcpu(boxes[box], &shots[to]);
}

static void op_attack(uint32_t box) {
    iso_order o;
    order_random(&o, &box_shape[box]);
    attack(box, &o);
}

/* A place that the guest may write; rarely where its own frames and the runtime's state are. */
static uint64_t random_place(const shape *s, uint64_t *bytes) {
    const hlsnap_region *r;
    uint64_t from = 0, size;
    do r = &s->regions[below(s->num)];
    while (!r->writable);
    size = r->pages * 4096;
    if (chance(93)) { /* tame */
        r = chance(50) ? region_named(s, "heap") : region_named(s, "stack");
        size = strcmp(r->kind, "stack") ? r->pages * 4096 : r->pages * 4096 - 8192, from = strcmp(r->kind, "stack") ? 16384 : 0;
        if (chance(30)) {
            size = at.bss_size, *bytes = size - (from = below(size));
            return at.bss + from;
        }
    }
    from += below(size - from);
    *bytes = size - from;
    return r->gva + from;
}
static const shape *shape_now(uint32_t box) { return &box_shape[box]; }

static void op_scribble(uint32_t box) {
    hlsnap_value v[4];
    uint64_t bytes, to = random_place(shape_now(box), &bytes), step = chance(50) ? 1 : chance(50) ? 4096 : 64;
    if (step < 4096 && bytes > 9000) bytes = 1 + below(9000);
    if (chance(20) && bytes > 64) bytes = 1 + below(64);
    v[0] = hlsnap_u64(to), v[1] = hlsnap_u64(bytes), v[2] = hlsnap_u64(step), v[3] = hlsnap_u64(rnd());
    remember("box %u on %s: scribble 0x%llx, %llu bytes, every %llu", box, where_names[where_now], (unsigned long long)to, (unsigned long long)bytes,
             (unsigned long long)step);
    call_on(boxes[box], "scribble", v, 4, 0);
}
static void op_work(uint32_t box) {
    const hlsnap_value v = hlsnap_u32(1 + (uint32_t)below(80));
    host_act = (int)below(7);
    host_box = boxes[box];
    remember("box %u on %s: work %u, host function does %d", box, where_names[where_now], v.as.u32, host_act);
    call_on(boxes[box], "work", &v, 1, 0);
    host_box = NULL;
}
static void op_peek(uint32_t box) { /* reading makes pages present, not private */
    const hlsnap_region *r = &shape_now(box)->regions[below(shape_now(box)->num)];
    hlsnap_value v[2];
    v[0] = hlsnap_u64(r->gva), v[1] = hlsnap_u64(1 + below(r->pages * 4096 < 20000 ? r->pages * 4096 : 20000));
    remember("box %u on %s: peek %s", box, where_names[where_now], r->kind);
    call_on(boxes[box], "peek", v, 2, 0);
}
static void op_host_write(uint32_t box) { /* any region but the identity page, code included */
    static uint8_t bytes[9000];
    const shape *s = shape_now(box);
    const hlsnap_region *r = &s->regions[below(s->num)];
    uint64_t from = below(r->pages * 4096), n = r->pages * 4096 - from;
    size_t i;
    if (chance(80)) from = random_place(s, &n) - r->gva;
    if (n > sizeof(bytes)) n = sizeof(bytes);
    n = 1 + below(n);
    for (i = 0; i < n; i++) bytes[i] = (uint8_t)rnd();
    remember("box %u: the host writes %llu bytes at 0x%llx", box, (unsigned long long)n, (unsigned long long)(r->gva + from));
    hlsnap_sandbox_write(boxes[box], r->gva + from, bytes, (size_t)n, NULL);
}
static void op_host_read(uint32_t box) {
    static uint8_t bytes[20000];
    const hlsnap_region *r = &shape_now(box)->regions[below(shape_now(box)->num)];
    remember("box %u: the host reads %s", box, r->kind);
    CHECK_EQ(hlsnap_sandbox_read(boxes[box], r->gva, bytes, r->pages * 4096 < sizeof(bytes) ? r->pages * 4096 : sizeof(bytes), NULL), HLSNAP_OK);
}

/* Another process writes into pages that the guest may write. */
static void op_stranger(uint32_t box) {
    uint64_t bytes, to = random_place(shape_now(box), &bytes);
    const uint64_t kind = chance(40) ? STRANGER_WRITEV : chance(70) ? STRANGER_MEM : STRANGER_READV;
    remember("box %u: another process, way %u, %llu bytes at 0x%llx", box, (unsigned)kind, (unsigned long long)bytes, (unsigned long long)to);
    if (bytes > 20000) bytes = 1 + below(20000);
    if (chance(50) || !is_ready(boxes[box])) {
        CHECK_EQ(ask(kind, (uint64_t)(uintptr_t)host_address(boxes[box], to), bytes), bytes);
        return;
    }
    stranger_send(kind, (uint64_t)(uintptr_t)host_address(boxes[box], to), bytes); /* while the guest runs */
    op_attack(box);
    CHECK_EQ(stranger_answer(), bytes);
}

enum { WAY_POPULATE_WRITE, WAY_POPULATE_READ, WAY_MLOCK, WAY_MLOCKALL, WAY_MLOCKALL_FUTURE, WAY_MUNLOCKALL, WAY_PAGEOUT, WAY_COLLAPSE, WAY_HUGE,
       WAY_MERGE, WAY_SQUEEZE, WAY_WRITEV, WAY_MEM, NUM_WAYS };
static const char *const way_names[NUM_WAYS] = {"MADV_POPULATE_WRITE", "MADV_POPULATE_READ", "mlock", "mlockall", "mlockall of the future", "munlockall",
    "MADV_PAGEOUT", "MADV_COLLAPSE", "MADV_HUGEPAGE", "MADV_MERGEABLE", "a squeezed cgroup", "process_vm_writev", "/proc/PID/mem"};
typedef struct expose { sandbox *sb; int way; uint64_t at, size; } expose;
static uint64_t num_worked[NUM_WAYS];
static void task_expose(void *user) {
    const expose *e = (const expose *)user;
    uint8_t *p = host_address(e->sb, e->at);
    int r = -1;
    switch (e->way) {
    case WAY_POPULATE_WRITE: r = madvise(p, e->size, POPULATE_WRITE); break;
    case WAY_POPULATE_READ: r = madvise(p, e->size, POPULATE_READ); break;
    case WAY_MLOCK: r = mlock(p, e->size); break;
    case WAY_MLOCKALL: r = mlockall(MCL_CURRENT); break;
    case WAY_MLOCKALL_FUTURE: r = mlockall(MCL_CURRENT | MCL_FUTURE | 4 /* MCL_ONFAULT */); break;
    case WAY_MUNLOCKALL: r = munlockall(); break;
    case WAY_PAGEOUT: r = madvise(p, e->size, PAGEOUT); break;
    case WAY_COLLAPSE: r = madvise(p, e->size, MADV_HUGEPAGE) ? -1 : madvise(p, e->size, COLLAPSE); break;
    case WAY_HUGE: r = madvise(p, e->size, MADV_HUGEPAGE); break;
    case WAY_MERGE: r = madvise(p, e->size, MADV_MERGEABLE); break;
    case WAY_SQUEEZE: r = ask(STRANGER_SQUEEZE, 0, 0) > 0 ? 0 : -1; break;
    case WAY_WRITEV: r = ask(STRANGER_WRITEV, (uint64_t)(uintptr_t)p, e->size) > 0 ? 0 : -1; break;
    default: r = ask(STRANGER_MEM, (uint64_t)(uintptr_t)p, e->size) > 0 ? 0 : -1; break;
    }
    num_worked[e->way] += r == 0;
}
static void expose_pages(sandbox *sb, const shape *s, int way, enum where_kind where) {
    expose e = {sb, way, s->regions[0].gva, 0};
    e.size = window_size(sb) - (e.at - (s->regions[0].gva & ~0x1fffffull));
    if (way == WAY_WRITEV || way == WAY_MEM || chance(20)) e.at = random_place(s, &e.size) & ~0xfffull, e.size = 4096;
    run_on(where, task_expose, &e);
}
/* Something makes pages private, or takes them away, behind the library's back. */
static void op_expose(uint32_t box) {
    static const uint8_t every[NUM_WAYS] = {1, 2, 3, 20, 20, 3, 2, 6, 8, 4, 6, 2, 2};
    const uint32_t way = pick(every, NUM_WAYS);
    remember("box %u: %s on %s", box, way_names[way], where_names[where_now]);
    if (way == WAY_MERGE && machine_can & CAN_KSM && chance(30)) ask(STRANGER_ZERO_PAGES, 0, 0);
    expose_pages(boxes[box], shape_now(box), (int)way, where_now);
}

static void op_take(uint32_t box) {
    task k = {boxes[box], NULL, NULL, NULL, 0, 0, HLSNAP_OK, NULL};
    const uint32_t to = num_shots < MAX_SHOTS ? num_shots : NUM_BASES + (uint32_t)below(MAX_SHOTS - NUM_BASES);
    const shape *s = shape_now(box);
    uint8_t *before = (uint8_t *)malloc(s->stored);
    uint64_t off = 0;
    uint32_t i;
    shot t;
    bool good;
    remember("box %u on %s: snapshot, shot %u", box, where_names[where_now], to);
    noise_off();
    for (i = 0; before && i < s->num; i++)
        if (s->regions[i].stored) hlsnap_sandbox_read(boxes[box], s->regions[i].gva, before + off, s->regions[i].pages * 4096, NULL), off += s->regions[i].pages * 4096;
    run_on(where_now, task_take, &k);
    if (!before || !CHECK_EQ(k.result, HLSNAP_OK)) {
        free(before);
        return;
    }
    good = shot_make(&t, k.taken); /* not where the guest in it was broken: such a one has no registers to compare */
    if (!test_bad) CHECK(bytes_same("a new snapshot", t.bytes, before, (size_t)s->stored));
    free(before);
    if (!good) {
        shot_release(&t);
        return;
    }
    if (to == num_shots) num_shots++;
    else shot_release(&shots[to]);
    shots[to] = t;
}
static void op_clone(uint32_t box) {
    shot *t = &shots[below(num_shots)];
    sandbox *sb = box_from(t->s);
    remember("a clone of shot %u", (unsigned)(t - shots));
    (void)box;
    if (!CHECK(sb != NULL)) return;
    check_memory(sb, t);
    if (!test_bad) check_vcpu(sb, t);
    hlsnap_sandbox_destroy(sb);
}
/* A sandbox ends in the middle of its life, another takes its place. */
static void op_replace(uint32_t box) {
    remember("box %u: destroyed and made anew", box);
    noise_off();
    __atomic_store_n(&handler_cancels, NULL, __ATOMIC_RELEASE);
    hlsnap_interrupt_release(interrupts[box]);
    hlsnap_sandbox_destroy(boxes[box]);
    boxes[box] = box_from(shots[box].s);
    box_at[box] = box;
    box_shape[box] = shots[box].shape;
    if (!CHECK(boxes[box] != NULL)) exit(1);
    interrupts[box] = box == 1 ? NULL : hlsnap_sandbox_get_interrupt(boxes[box]); /* one is never cancelled: it runs without signals prepared */
}
static void op_retire(uint32_t box) {
    remember("box %u: retired", box);
    hlsnap_sandbox_retire(boxes[box]);
}
static void child_fault(int sig) {
    (void)sig;
    _exit(0);
}
static void op_fork(uint32_t box) {
    const uint64_t what = below(4);
    int status;
    pid_t pid;
    remember("box %u: a fork whose child does %u", box, (unsigned)what);
    fflush(stdout);
    pid = fork();
    if (pid == 0) {
        signal(SIGSEGV, child_fault);
        if (what == 0) memset(window(boxes[box]), 0x66, 4096); /* not there */
        if (what == 1) _exit(hlsnap_sandbox_call(boxes[box], "probe", HLSNAP_NO_ARGS, NULL, NULL) == HLSNAP_ERR_STATE ? 0 : 1);
        if (what == 2) hlsnap_sandbox_restore(boxes[box], shots[box].s, NULL), hlsnap_sandbox_destroy(boxes[box]);
        _exit(0);
    }
    if (!CHECK(pid > 0)) return;
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR) { }
    if (what == 1) CHECK_EQ(status, 0);
}
static void op_storm(uint32_t box) {
    const uint64_t us = chance(50) ? 0 : 150 + below(800);
    remember("box %u: SIGALRM every %llu us", box, (unsigned long long)us);
    __atomic_store_n(&handler_cancels, chance(50) ? interrupts[box] : NULL, __ATOMIC_RELEASE);
    storm_set(is_slow ? us * 40 % 900000 : us);
}
static void op_noise(uint32_t box) {
    const uint32_t mask = chance(50) ? 0 : 1u << below(7) | 1u << below(7);
    remember("box %u: noise 0x%x", box, mask);
    if (mask) noise_on(mask, boxes[box], interrupts[box]);
    else noise_off();
}

/* Pages become private behind the library's back; the guest writes into one; a restore: all by one thread, as steadily as can be. */
static void op_behind(uint32_t box) {
    static const uint8_t ways[] = {WAY_POPULATE_WRITE, WAY_WRITEV, WAY_MEM, WAY_MLOCK};
    const int way = ways[below(HLSNAP_COUNT(ways))];
    const shape *s = shape_now(box);
    const hlsnap_region *heap = region_named(s, "heap");
    hlsnap_value v[4];
    expose e = {boxes[box], way, heap->gva + 16384 + 4096 * below(heap->pages - 4), 4096};
    remember("box %u on %s: %s of 0x%llx, scribble there, restore", box, where_names[where_now], way_names[way], (unsigned long long)e.at);
    run_on(ON_WORKER, task_expose, &e);
    v[0] = hlsnap_u64(e.at), v[1] = hlsnap_u64(4096), v[2] = hlsnap_u64(1), v[3] = hlsnap_u64(rnd());
    if (where_now == ON_WORKER) where_now = ON_MAIN;
    call_on(boxes[box], "scribble", v, 4, 0);
    op_restore(box, true);
}

typedef struct op { void (*fn)(uint32_t box); uint32_t weight; bool poisoned_too; } op;
static const op ops[] = {{op_attack, 44, false}, {op_scribble, 12, false}, {op_work, 5, false}, {op_peek, 3, false}, {op_host_write, 4, false},
    {op_host_read, 2, false}, {op_stranger, 6, true}, {op_expose, 8, true}, {op_take, 2, false}, {op_clone, 1, true}, {op_retire, 1, false},
    {op_storm, 2, true}, {op_noise, 4, true}, {op_behind, 4, false}};

static void step(void) {
    const uint64_t dice = below(100);
    const uint32_t box = dice < 50 ? 0 : dice < 88 ? 1 : 2;
    uint32_t i, n = 0, sum = 0;
    where_now = chance(65) ? ON_MAIN : chance(60) ? ON_WORKER : chance(80) ? ON_NEW : ON_SAME_NUMBER;
    if (below(400) == 0) op_fork(box);
    else if (below(500) == 0) op_replace(box);
    for (i = 0; i < HLSNAP_COUNT(ops); i++) sum += ops[i].weight;
    n = (uint32_t)below(sum);
    for (i = 0; n >= ops[i].weight; i++) n -= ops[i].weight;
    if ((!is_ready(boxes[box]) && !ops[i].poisoned_too) || chance(20)) op_restore(box, false);
    else ops[i].fn(box);
}

/* ---- >>world-open ---- */

/* What the guest's entry may use to look at itself. */
static void has_find(sandbox *sb, uint8_t *has) {
    static const struct { const char *name; uint8_t bit; } rows[] = {{"xgetbv", ISO_HAS_XSAVE}, {"rdgsbase", ISO_HAS_FSGSBASE}, {"rdpkru", ISO_HAS_PKRU}};
    snapshot *s = NULL;
    size_t i;
    *has = 0;
    if (!CHECK_EQ(hlsnap_sandbox_snapshot(sb, &s, &last), HLSNAP_OK)) return;
    for (i = 0; i < HLSNAP_COUNT(rows); i++) {
        iso_order o;
        hlsnap_value v;
        memset(&o, 0, sizeof(o));
        o.disturb[0] = disturb_named(rows[i].name), o.ending = ending_named("out_return"), o.reply = 1, o.rflags = 2;
        v = hlsnap_bytes(&o, sizeof(o));
        if (hlsnap_sandbox_call(sb, "attack", &v, 1, NULL, &last) == HLSNAP_OK) *has |= rows[i].bit;
        CHECK_EQ(hlsnap_sandbox_restore(sb, s, &last), HLSNAP_OK);
    }
    hlsnap_snapshot_release(s);
}

static bool base_open(uint32_t i) {
    hlsnap_value v;
    snapshot *s = NULL;
    uint8_t has;
    boxes[i] = box_new(base_heaps[i]);
    if (!CHECK(boxes[i] != NULL) || !CHECK_EQ(hlsnap_sandbox_call(boxes[i], "where", HLSNAP_NO_ARGS, &v, &last), HLSNAP_OK)) return false;
    if (!CHECK_EQ(v.size, sizeof(at))) return false;
    memcpy(&at, v.bytes, sizeof(at));
    has_find(boxes[i], &has);
    if (!CHECK_EQ(hlsnap_sandbox_write(boxes[i], at.has, &has, 1, NULL), HLSNAP_OK)) return false;
    if (i == 0) {
        printf("# the guest reads: XSAVE %d, FS and GS base %d, PKRU %d\n", has & 1, has >> 1 & 1, has >> 2);
        msrs_find(boxes[i]);
        printf("# KVM tells %u MSRs of %d\n", msrs_readable.num, MAX_MSRS);
    }
    if (!CHECK_EQ(hlsnap_sandbox_snapshot(boxes[i], &s, &last), HLSNAP_OK) || !CHECK(shot_make(&shots[i], s))) return false;
    hlsnap_sandbox_destroy(boxes[i]);
    boxes[i] = box_from(s); /* with the time limit of the others */
    box_at[i] = i;
    box_shape[i] = shots[i].shape;
    num_shots = i + 1;
    if (!CHECK(boxes[i] != NULL)) return false;
    interrupts[i] = i == 1 ? NULL : hlsnap_sandbox_get_interrupt(boxes[i]);
    return true;
}
static bool world_open(void) {
    static bool opened;
    uint32_t i;
    if (opened) return boxes[NUM_BASES - 1] != NULL;
    opened = true;
    where_now = ON_MAIN;
    shots = (shot *)calloc(MAX_SHOTS + 1, sizeof(shot));
    for (i = 0; i < NUM_BASES; i++)
        if (!base_open(i)) return false;
    { /* the oracle itself: two sandboxes that nobody had are alike */
        sandbox *sb = box_from(shots[0].s);
        if (!CHECK(sb != NULL)) return false;
        check_memory(sb, &shots[0]);
        check_vcpu(sb, &shots[0]);
        hlsnap_sandbox_destroy(sb);
    }
    return true;
}
static void world_close(void) {
    uint32_t i;
    noise_off();
    __atomic_store_n(&handler_cancels, NULL, __ATOMIC_RELEASE);
    for (i = 0; i < NUM_SANDBOXES; i++) hlsnap_interrupt_release(interrupts[i]), hlsnap_sandbox_destroy(boxes[i]);
    for (i = 0; shots && i < num_shots; i++) shot_release(&shots[i]);
    free(shots);
    free(room);
}
static const char *kvm_missing(void) {
    static hlsnap_error err;
    if (hlsnap_kvm_probe(&err)) return err.msg;
    if (access(guest_file, R_OK)) return "no " ISO_GUEST " in GUEST_DIR";
    return NULL;
}
#define NEED_WORLD \
    const char *missing_ = kvm_missing(); \
    if (missing_) SKIP(missing_); \
    rnd_state = seed; \
    where_now = ON_MAIN; \
    if (!world_open()) return; \
    op_replace(0) /* what one test left does not fail the next */
static bool failed(void) { /* says what went before */
    if (!test_bad) return false;
    noise_off();
    storm_set(0);
    printf("# SEED=0x%llx; the last operations:\n", (unsigned long long)seed);
    history_print();
    return true;
}

/* ---- >>tests ---- */

static void attack_and_look(const iso_order *o) {
    attack(0, o);
    op_restore(0, true);
}

/* Each ending, plainly, behind an interrupt shadow, and with TF besides; with a proper result or none. */
static void every_ending(void) {
    uint32_t e, how, reply;
    NEED_WORLD;
    for (e = 0; e < ISO_NUM_ENDINGS; e++)
        for (how = 0; how < ISO_NUM_HOW; how++)
            for (reply = 0; reply < 2; reply++) {
                iso_order o;
                if (is_slow && (e + how + reply) % 2) continue;
                memset(&o, 0, sizeof(o));
                o.disturb[0] = disturb_named("x87_flags"), o.disturb[1] = disturb_named("sse"), o.disturb[2] = disturb_named(how ? "avx" : "mxcsr");
                o.ending = e, o.how = how, o.reply = reply, o.count = 3, o.arg = 0x5ec4e75ec4e7, o.port = 0xe0, o.rflags = how == ISO_TF_SHADOW ? 0x102 : 0x2;
                box_at[0] = 0;
                attack_and_look(&o);
                if (failed()) return;
            }
}
/* The host's own PKRU, where there is one: on software KVM it is the same register. */
static uint32_t host_keys(void) {
    uint32_t r[4], keys = 0;
    hlsnap__cpuid(7, 0, r);
    if (r[2] >> 4 & 1) __asm__ volatile("rdpkru" : "=a"(keys) : "c"(0) : "rdx");
    return keys;
}
static void every_disturb(void) {
    const uint32_t keys = host_keys();
    uint32_t d, reply;
    NEED_WORLD;
    for (d = 0; d < ISO_NUM_DISTURBS; d++)
        for (reply = 0; reply < 2; reply++) {
            iso_order o;
            memset(&o, 0, sizeof(o));
            o.disturb[0] = 1 + d, o.ending = ending_named(reply ? "out_return" : "ud2"), o.reply = reply, o.rflags = reply ? 0x602 : 2;
            o.arg = reply ? 0x5ec4e75ec4e75ec4 : hostile_selector();
            attack_and_look(&o);
            CHECK_EQ(host_keys(), keys);
            if (failed()) return;
        }
}
/* Into the gate, the stubs and what lies beside them. */
static void gate_and_stubs(void) {
    uint64_t i;
    NEED_WORLD;
    for (i = 0; i < 260; i++) {
        iso_order o;
        memset(&o, 0, sizeof(o));
        o.disturb[0] = disturb_named("sse");
        o.ending = ending_named(i % 2 ? "exec" : "exec_call"), o.reply = (uint32_t)i & 1, o.rflags = 2, o.port = 0xe0;
        o.arg = i < 40 ? GATE_GVA + i : i < 180 ? STUBS_GVA + i - 40 : SUPERVISOR_GVA + below(SUPERVISOR_SIZE);
        if (is_slow && i > 40 && i % 4) continue;
        attack_and_look(&o);
        if (failed()) return;
    }
}
/* Code segments that are none of ours: 32-bit ones, such as some KVMs leave in reach, and LDT ones. */
static void other_selectors(void) {
    static const char *const ways[] = {"lret", "iret", "far_jump", "far_call", "lret32", "iret32"};
    static const uint16_t selectors[] = {0x23, 0x33, 0x1b, 0x2b, 0x07, 0x0f, 0x08, 0x28, 0x2b, 0x3b, 0x7b, 0x0c};
    uint64_t w, s, k;
    NEED_WORLD;
    for (w = 0; w < HLSNAP_COUNT(ways); w++)
        for (s = 0; s < HLSNAP_COUNT(selectors); s++)
            for (k = 0; k < (s == 0 && !is_slow ? at.code32_size / 16 : 1); k++) {
                iso_order o;
                memset(&o, 0, sizeof(o));
                o.disturb[0] = disturb_named("mmx"), o.ending = ending_named(ways[w]), o.reply = k & 1, o.rflags = 2, o.cs = selectors[s];
                o.rip = at.code32 + 16 * k, o.ss = s == 0 ? 0x2b : 0;
                attack_and_look(&o);
                if (failed()) return;
            }
}

/* Data selectors, which some KVMs leave to the thread: none reaches the next guest, and none the host, which may have its own. */
static void data_selectors(void) {
    static const char *const into[] = {"ds_any", "es_any", "fs_any", "gs_any"};
    static const uint16_t selectors[] = {0x2b, 0x23, 0x33, 0x1b, 3, 1};
    uint32_t i, s, user_data, null = 0;
    NEED_WORLD;
    where_now = ON_MAIN;
    __asm__("mov %%ss,%0" : "=r"(user_data));
    for (i = 0; i < HLSNAP_COUNT(into); i++)
        for (s = 0; s < HLSNAP_COUNT(selectors); s++) {
            iso_order o;
            memset(&o, 0, sizeof(o));
            o.disturb[0] = disturb_named(into[i]), o.ending = ending_named(s % 2 ? "ud2" : "out_return"), o.reply = !(s % 2), o.rflags = 2;
            o.arg = selectors[s];
            attack_and_look(&o);
            __asm__ volatile("mov %0,%%ds; mov %0,%%es" : : "r"(user_data));
            attack(0, &o);
            CHECK_EQ(segments_get().at[0], user_data);
            __asm__ volatile("mov %0,%%ds; mov %0,%%es" : : "r"(null));
            op_restore(0, true);
            if (failed()) return;
        }
}

/* A steady state, then something from outside makes pages private, then a tenant writes there, then a restore. */
static void pages_made_private(void) {
    static const int ways[] = {WAY_POPULATE_WRITE, WAY_MLOCKALL, WAY_WRITEV, WAY_MEM, WAY_MLOCK, WAY_POPULATE_READ};
    const hlsnap_region *heap;
    size_t w, i;
    NEED_WORLD;
    heap = region_named(&shots[0].shape, "heap");
    for (w = 0; w < HLSNAP_COUNT(ways); w++) {
        expose e = {boxes[0], ways[w], heap->gva + (20 + w) * 4096, 4096};
        hlsnap_value v[4];
        restore_to(boxes[0], &shots[1]);
        for (i = 0; i < 40; i++) restore_to(boxes[0], &shots[0]), call_on(boxes[0], "probe", HLSNAP_NO_ARGS, 0);
        restore_to(boxes[0], &shots[0]);
        remember("%s of 0x%llx, scribble there, restore", way_names[ways[w]], (unsigned long long)e.at);
        run_on(ON_WORKER, task_expose, &e);
        v[0] = hlsnap_u64(e.at), v[1] = hlsnap_u64(4096), v[2] = hlsnap_u64(1), v[3] = hlsnap_u64(rnd());
        CHECK_EQ(call_on(boxes[0], "scribble", v, 4, 10000000000), HLSNAP_OK);
        restore_to(boxes[0], &shots[0]);
        if (!test_bad) check_memory(boxes[0], &shots[0]);
        munlockall();
        if (failed()) return;
    }
}
/* Restored on a short-lived thread, called on the next, restored on a third that got the first one's number. */
static void thread_numbers(void) {
    const hlsnap_region *heap;
    uint64_t round, got = 0;
    size_t i;
    NEED_WORLD;
    heap = region_named(&shots[0].shape, "heap");
    restore_to(boxes[0], &shots[1]); /* mapped afresh */
    for (round = 0; round < 4; round++) {
        hlsnap_value v[4];
        long want;
        where_now = ON_NEW;
        v[0] = hlsnap_u64(heap->gva + (30 + round) * 4096), v[1] = hlsnap_u64(4096), v[2] = hlsnap_u64(1), v[3] = hlsnap_u64(rnd());
        for (i = 0; i < 20; i++) call_on(boxes[0], "probe", HLSNAP_NO_ARGS, 0), restore_to(boxes[0], &shots[0]);
        call_on(boxes[0], "scribble", v, 4, 10000000000); /* the page is private from now on; given back only when it was idle for long */
        for (i = 0; i < 60; i++) restore_to(boxes[0], &shots[0]);
        want = last_tid;
        remember("restored on thread %ld, scribble at 0x%llx on another, restored on another %ld", want, (unsigned long long)v[0].as.u64, want);
        CHECK_EQ(call_on(boxes[0], "scribble", v, 4, 10000000000), HLSNAP_OK);
        number_next(want, true);
        restore_to(boxes[0], &shots[0]);
        got += last_tid == want;
        if (!test_bad) check_memory(boxes[0], &shots[0]);
        if (failed()) return;
    }
    if (!got) note("no thread got another's number");
}

static bool zero_pages(char *text, size_t cap) {
    const char *p = file_read("/proc/self/ksm_stat", text, cap) ? strstr(text, "ksm_zero_pages ") : NULL;
    return p && strtoull(p + 15, NULL, 10) > 0;
}
/* The guest overwrites with zeros what the snapshot has; KSM makes the zero page of it, which no longer looks private. */
static void merged_to_zero(void) {
    const hlsnap_region *heap;
    hlsnap_value v[4];
    sandbox *sb;
    shot t;
    snapshot *s = NULL;
    char text[1024] = "";
    uint64_t i;
    NEED_WORLD;
    if (ask(STRANGER_ZERO_PAGES, 1, 0) <= 0 && !(file_read(KSM "use_zero_pages", text, sizeof(text)) && text[0] == '1')) {
        note("no zero pages by KSM");
        return;
    }
    heap = region_named(&shots[0].shape, "heap");
    v[0] = hlsnap_u64(heap->gva + 10 * 4096), v[1] = hlsnap_u64(36 * 4096), v[2] = hlsnap_u64(1), v[3] = hlsnap_u64(rnd() | 1);
    CHECK_EQ(call_on(boxes[0], "scribble", v, 4, 10000000000), HLSNAP_OK);
    if (!CHECK_EQ(hlsnap_sandbox_snapshot(boxes[0], &s, &last), HLSNAP_OK) || !CHECK(shot_make(&t, s)) || !CHECK((sb = box_from(s)) != NULL)) return;
    for (i = 0; i < 40; i++) restore_to(sb, &t), call_on(sb, "probe", HLSNAP_NO_ARGS, 0);
    restore_to(sb, &t);
    CHECK_EQ(madvise(window(sb), window_size(sb), MADV_MERGEABLE), 0);
    v[0].as.u64 += 4096, v[1].as.u64 = 4 * 4096, v[3].as.u64 = 0;
    CHECK_EQ(call_on(sb, "scribble", v, 4, 10000000000), HLSNAP_OK);
    for (i = 0; i < 300 && !zero_pages(text, sizeof(text)); i++) usleep(10000);
    if (!zero_pages(text, sizeof(text))) note("KSM made no zero pages");
    remember("zeros at 0x%llx, merged, restore", (unsigned long long)v[0].as.u64);
    restore_to(sb, &t);
    if (!test_bad) check_memory(sb, &t);
    hlsnap_sandbox_destroy(sb);
    shot_release(&t);
    failed();
}

/* What a tenant wrote is swapped out when the restore looks for it; also where the kernel has no PAGEMAP_SCAN (before Linux 6.7). On a
   thread of its own, with which its seccomp filter ends. */
static void *swapped_run(void *user) {
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 0), BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_ioctl, 0, 3), BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 24),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)HLSNAP__PAGEMAP_SCAN, 0, 1), BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOTTY),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)};
    const struct sock_fprog program = {HLSNAP_COUNT(code), code};
    const bool scans = *(const bool *)user;
    const uint64_t pages = 8, place = region_named(&shots[0].shape, "heap")->gva + 24 * 4096;
    uint64_t i, entry, out = 0;
    hlsnap_value v[4];
    sandbox *sb;
    int fd;
    if (!scans && (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program))) {
        note("no seccomp filter");
        return NULL;
    }
    if (!CHECK((sb = box_from(shots[0].s)) != NULL)) return NULL;
    restore_to(sb, &shots[0]);
    remember("scribble at 0x%llx, swapped out, restore %s PAGEMAP_SCAN", (unsigned long long)place, scans ? "with" : "without");
    v[0] = hlsnap_u64(place), v[1] = hlsnap_u64(pages * 4096), v[2] = hlsnap_u64(1), v[3] = hlsnap_u64(rnd() | 1);
    CHECK_EQ(call_on(sb, "scribble", v, 4, 10000000000), HLSNAP_OK);
    madvise(host_address(sb, place), pages * 4096, PAGEOUT);
    fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    for (i = 0; i < pages; i++)
        out += pread(fd, &entry, 8, (off_t)(((uintptr_t)host_address(sb, place) / 4096 + i) * 8)) == 8 && entry >> 62 == 1;
    close(fd);
    if (!out) note("nothing was swapped out");
    restore_to(sb, &shots[0]);
    if (!test_bad) check_memory(sb, &shots[0]);
    hlsnap_sandbox_destroy(sb);
    return NULL;
}
static void swapped_out(void) {
    bool scans[2] = {true, false};
    pthread_t t;
    size_t i;
    NEED_WORLD;
    for (i = 0; i < 2 && !test_bad; i++) CHECK(pthread_create(&t, NULL, swapped_run, &scans[i]) == 0 && pthread_join(t, NULL) == 0);
    failed();
}

static uint64_t vmstat(const char *name) {
    static char all[16384];
    const char *p = file_read("/proc/vmstat", all, sizeof(all)) ? strstr(all, name) : NULL;
    return p ? strtoull(p + strlen(name), NULL, 10) : 0;
}

static void storm(void) {
    const uint64_t swapped = vmstat("pswpout "), huge = vmstat("thp_collapse_alloc "), most = env_number("OPS", env_number("LONG", 0) ? 200000 : is_slow ? 1500 : 20000);
    uint64_t n, i, signals = num_signals;
    NEED_WORLD;
    for (n = 0; n < most && !test_bad; n++) step();
    if (!failed()) noise_off(), storm_set(0);
    printf("# SEED=0x%llx: %llu operations; in all %llu restores, %llu looks at memory, %llu at registers, %llu signals\n", (unsigned long long)seed,
           (unsigned long long)n, (unsigned long long)num_restores, (unsigned long long)num_checks, (unsigned long long)num_probes,
           (unsigned long long)(num_signals - signals));
    printf("# calls ended in:");
    for (i = 0; i < 64; i++)
        if (num_results[i]) printf(" %s %llu", hlsnap_result_name((hlsnap_result)i), (unsigned long long)num_results[i]);
    printf("\n# worked:");
    for (i = 0; i < NUM_WAYS; i++)
        if (num_worked[i]) printf(" %s %llu", way_names[i], (unsigned long long)num_worked[i]);
    printf("; %llu pages swapped out, %llu huge ones made\n", (unsigned long long)(vmstat("pswpout ") - swapped), (unsigned long long)(vmstat("thp_collapse_alloc ") - huge));
    munlockall();
}

static const test_row tests[] = {TEST(every_ending), TEST(every_disturb), TEST(gate_and_stubs), TEST(other_selectors), TEST(data_selectors), TEST(pages_made_private),
    TEST(thread_numbers), TEST(merged_to_zero), TEST(swapped_out), TEST(storm)};

int main(int argc, char **argv) {
    const char *dir = getenv("GUEST_DIR");
    struct sigaction a;
    pthread_t t;
    int r;
    is_slow = getenv("SVM") || getenv("VMX");
    seed = env_number("SEED", hlsnap__now_ns() | 1);
    printf("# SEED=0x%llx\n", (unsigned long long)seed);
    snprintf(guest_file, sizeof(guest_file), "%.400s/" ISO_GUEST, dir ? dir : ".");
    main_thread = pthread_self();
    if (!stranger_start()) return 1;
    machine_can = (uint32_t)ask(STRANGER_SETUP, 0, 0);
    if (!(machine_can & CAN_SWAP)) note("no swap here, and none could be made");
    if (!(machine_can & CAN_CGROUP)) note("no memory cgroup of one's own");
    if (!(machine_can & CAN_KSM)) note("no KSM, or no right to start it");
    memset(&a, 0, sizeof(a));
    a.sa_handler = on_signal;
    sigaction(SIGUSR1, &a, NULL);
    a.sa_flags = SA_RESTART;
    sigaction(SIGALRM, &a, NULL);
    if (pthread_create(&t, NULL, worker, NULL) || pthread_create(&t, NULL, noise, NULL) || pthread_create(&t, NULL, watchdog, NULL)) return 1;
    r = TEST_MAIN(tests, argc, argv);
    world_close();
    stranger_end();
    fflush(stdout);
    tcdrain(1); /* where it is a slow console, and the machine goes off right behind this */
    return r;
}

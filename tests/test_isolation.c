/* test_isolation.c - after a restore nothing of the former tenant is left: not in guest memory, not in the vCPU, not in the mailbox.
   cc: cc -std=gnu11 -O2 -I.. test_isolation.c -o test_isolation       (-lpthread where the C library wants it)
   run: GUEST_DIR=... ./test_isolation [NAME]                           guest_isolation.elf lies in GUEST_DIR
   -DISOLATION_ELF='"file"' takes the guest into the program, for machines with nothing else on them. OPS=n: so many operations
   instead of 20,000; LONG=1: 200,000; SEED=n: the same decisions again; SVM=1 or VMX=1: a slow machine, fewer.

   What it does: a guest attacks (guest_isolation.h: every kind of instruction that CPL 3 has, in every way to leave, with odd
   flags, stacks, selectors and shadows), while the host does what hosts do: restores and calls on threads that come and go, signals
   with handlers, mlockall, populating, swapping, merging and collapsing of the guest's pages by other threads, writes into them by
   another process, forks. The oracle is a sandbox made from the same snapshot that no tenant had: after a restore all stored pages
   must be the snapshot's (as hlsnap_snapshot_read, hlsnap_sandbox_read and the mapping itself show them), the mailbox zero, and
   what the guest's first instructions find, and all that KVM tells of the vCPU, the same as there.
   What it does not prove: anything about timing, caches and what is resident; that a stranger's write into text, constants or the
   identity page is undone (the guest cannot write there, and hlsnap_sandbox_write is watched); vCPU state that KVM has no
   interface for. Which fault an instruction ends in differs between KVMs and is not judged. */
#define HLSNAP_IMPLEMENTATION
#include "hlsnap.h"
#include "hlsnap_kvm.h"
#include "guest_isolation.h"
#include "test.h"
#include <linux/kvm.h>
#include <pthread.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/swap.h>
#include <sys/time.h>
#include <sys/wait.h>

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
    (void)user;
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

/* A swap file that has no name any more, so that nothing is left of it. */
static int swap_fd = -1;
static bool swap_on(void) {
    const uint32_t pages = 48 << 8;
    static uint8_t page[4096];
    char name[64], all[1024];
    uint32_t i;
    bool ok = true;
    if (file_read("/proc/swaps", all, sizeof(all)) && strchr(all, '\n') && strchr(all, '\n')[1]) return true;
    if (geteuid()) return false;
    snprintf(name, sizeof(name), "isolation.swap.%d", getpid());
    swap_fd = open(name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    for (i = 0; i < pages && ok && swap_fd >= 0; i++) {
        memset(page, 0, sizeof(page));
        if (i == 0) page[1024] = 1, memcpy(page + 1028, &(uint32_t){pages - 1}, 4), memcpy(page + 4086, "SWAPSPACE2", 10);
        ok = write(swap_fd, page, sizeof(page)) == (ssize_t)sizeof(page);
    }
    ok = ok && swap_fd >= 0 && fsync(swap_fd) == 0 && swapon(name, 0) == 0;
    unlink(name);
    if (!ok && swap_fd >= 0) close(swap_fd), swap_fd = -1;
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
static char ksm_run[16], ksm_zero[16];
static bool ksm_on(void) {
    return !geteuid() && file_read(KSM "run", ksm_run, sizeof(ksm_run)) && file_read(KSM "use_zero_pages", ksm_zero, sizeof(ksm_zero)) &&
           file_write(KSM "run", "1");
}
static void machine_give_back(void) {
    char name[64], pid[16];
    int i;
    if (ksm_run[0]) file_write(KSM "run", ksm_run[0] == '0' ? "2" : ksm_run), file_write(KSM "run", ksm_run), file_write(KSM "use_zero_pages", ksm_zero);
    snprintf(name, sizeof(name), "/proc/self/fd/%d", swap_fd);
    if (swap_fd >= 0) swapoff(name);
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
        else if (q.kind == STRANGER_ZERO_PAGES) r = file_write(KSM "use_zero_pages", q.seed & 1 ? "1" : "0");
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
static bool number_next(long want) {
    job none = {NULL, NULL};
    char text[32];
    long i;
    snprintf(text, sizeof(text), "%ld", want - 1);
    if (file_write("/proc/sys/kernel/ns_last_pid", text)) return true;
    if (!file_read("/proc/sys/kernel/pid_max", text, sizeof(text)) || strtol(text, NULL, 10) > 40000) return false;
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
        if (where == ON_SAME_NUMBER && last_tid) number_next(last_tid);
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
static void on_signal(int sig) {
    volatile uint8_t stack[3000]; /* a handler that needs room */
    stack[sig] = stack[2999 - sig] = 1;
    if (__atomic_add_fetch(&num_signals, 1, __ATOMIC_RELAXED) % 4 == 0) hlsnap_interrupt_cancel(__atomic_load_n(&handler_cancels, __ATOMIC_ACQUIRE));
}
static void storm_set(uint64_t us) {
    const struct itimerval t = {{0, (suseconds_t)us}, {0, (suseconds_t)us}};
    setitimer(ITIMER_REAL, &t, NULL);
}

/* test_kvm_hosts.h - a part of test_kvm.c: what hosts are like, and what they and their other threads, processes and limits do. */
#include <sys/mount.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>

/* Runs f in a child process, whose limits and filters end with it; what it finds wrong is counted here. */
static void in_a_child(void (*f)(void *), void *user) {
    const pid_t child = fork();
    int status = 0;
    fflush(stdout);
    if (child == 0) {
        test_bad = 0;
        f(user);
        fflush(stdout);
        _exit(test_bad > 100 ? 100 : test_bad);
    }
    CHECK(child > 0 && waitpid(child, &status, 0) == child);
    if (!CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0)) printf("# the child: status 0x%x\n", (unsigned)status);
}

static bool limit_set(int what, uint64_t n) {
    const struct rlimit r = {n, n};
    return setrlimit((__rlimit_resource_t)what, &r) == 0;
}

/* ---- >>refusals: each system call of KVM's fails in each way that has words of its own ---- */

static bool refuse(uint32_t number, uint32_t request, int error) { /* request 0: whatever the second argument is */
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 0), BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, number, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 24), BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, request, 0, request ? 1 : 0),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (uint32_t)error), BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)};
    const struct sock_fprog program = {HLSNAP_COUNT(code), code};
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

enum stage { CREATING, CALLING_WITH_LIMIT, CALLING_AGAIN, CALLING_AFTER_DEBUG };
typedef struct refusal { const char *name; uint64_t request; enum stage stage; } refusal;
static const refusal refusals[] = {
    {"KVM_GET_API_VERSION", HLSNAP__KVM_GET_API_VERSION, CREATING}, {"KVM_GET_VCPU_MMAP_SIZE", HLSNAP__KVM_GET_VCPU_MMAP_SIZE, CREATING},
    {"KVM_CHECK_EXTENSION", HLSNAP__KVM_CHECK_EXTENSION, CREATING}, {"KVM_GET_SUPPORTED_CPUID", HLSNAP__KVM_GET_SUPPORTED_CPUID, CREATING},
    {"KVM_CREATE_VM", HLSNAP__KVM_CREATE_VM, CREATING}, {"KVM_CREATE_VCPU", HLSNAP__KVM_CREATE_VCPU, CREATING},
    {"KVM_SET_CPUID2", HLSNAP__KVM_SET_CPUID2, CREATING}, {"KVM_SET_MSRS", HLSNAP__KVM_SET_MSRS, CREATING},
    {"KVM_SET_USER_MEMORY_REGION", HLSNAP__KVM_SET_USER_MEMORY_REGION, CREATING}, {"KVM_RUN", HLSNAP__KVM_RUN, CREATING},
    {"KVM_SET_SIGNAL_MASK", HLSNAP__KVM_SET_SIGNAL_MASK, CALLING_WITH_LIMIT}, {"KVM_SET_XSAVE", HLSNAP__KVM_SET_XSAVE, CALLING_AGAIN},
    {"KVM_SET_DEBUGREGS", HLSNAP__KVM_SET_DEBUGREGS, CALLING_AFTER_DEBUG}};
static const struct refused { int error; hlsnap_result code; const char *words; } refused[] = {
    {EAGAIN, HLSNAP_ERR_OS, "pids.max"}, {ENOMEM, HLSNAP_ERR_MEMORY, "memory.max"}, {EMFILE, HLSNAP_ERR_OS, "RLIMIT_NOFILE"},
    {ENFILE, HLSNAP_ERR_OS, "too many files"}, {EBUSY, HLSNAP_ERR_HYPERVISOR, "VirtualBox"}, {EPERM, HLSNAP_ERR_HYPERVISOR, "seccomp"},
    {EACCES, HLSNAP_ERR_HYPERVISOR, "seccomp"}, {ENOSYS, HLSNAP_ERR_HYPERVISOR, "seccomp"}, {ENOTTY, HLSNAP_ERR_HYPERVISOR, "no KVM device"},
    {EINVAL, HLSNAP_ERR_HYPERVISOR, "cannot do it"}, {EIO, HLSNAP_ERR_HYPERVISOR, "another process"}, {EFAULT, HLSNAP_ERR_HYPERVISOR, "memory of the guest"}};

typedef struct refusal_case { const refusal *what; const struct refused *how; } refusal_case;
static void refusal_run(void *user) {
    const refusal_case *c = (const refusal_case *)user;
    const hlsnap_value in_gate[2] = {hlsnap_u32(FAULT_ICEBP), hlsnap_u64(0)};
    snapshot *pre = NULL, *s = NULL;
    hlsnap_function functions[NUM_FUNCTIONS];
    hlsnap_sandbox_desc d;
    sandbox *sb = NULL;
    hlsnap_result r;
    desc_of(&small, functions, &d);
    if (!CHECK_EQ(load(&small, &pre), HLSNAP_OK)) return;
    hlsnap__kvm_facts_state = hlsnap__kvm_facts_gate[0] = hlsnap__kvm_facts_syscall = 0;
    if (c->what->stage != CREATING) {
        if (!CHECK_EQ(hlsnap_sandbox_create_from(pre, &d, &sb, &last), HLSNAP_OK)) return;
        s = take(sb);
        call(sb, "nop", HLSNAP_NO_ARGS, NULL);
        if (c->what->stage == CALLING_AFTER_DEBUG) CHECK_EQ(call(sb, "fault", in_gate, 2, NULL), HLSNAP_ERR_FAULT);
        if (c->what->stage == CALLING_AFTER_DEBUG && last.vector != 1) {
        note("ICEBP", "no debug exception");
        return;
    }
        CHECK_EQ(restore(sb, s), HLSNAP_OK);
    }
    if (!refuse(SYS_ioctl, (uint32_t)c->what->request, c->how->error)) {
        note("seccomp", "not here");
        return;
    }
    last.msg[0] = 0, last.os_errno = 0;
    r = c->what->stage == CREATING ? hlsnap_sandbox_create_from(pre, &d, &sb, &last)
        : c->what->stage == CALLING_WITH_LIMIT ? call_limited(sb, "nop", HLSNAP_NO_ARGS, 1000000000u) : call(sb, "nop", HLSNAP_NO_ARGS, NULL);
    if (CHECK_EQ(r, c->how->code) & CHECK_EQ(last.os_errno, c->how->error) & CHECK(strstr(last.msg, c->how->words) != NULL)) return;
    printf("# %s, errno %d: %s\n", c->what->name, c->how->error, last.msg);
}

/* KVM_SET_MSRS answers how many it has set, here none: that is a refusal, too. */
static void no_msr_is_set(void *user) {
    hlsnap__kvm_facts_state = 0;
    (void)user;
    if (!refuse(SYS_ioctl, (uint32_t)HLSNAP__KVM_SET_MSRS, 0)) {
        note("seccomp", "not here");
        return;
    }
    last.os_errno = 0, last.msg[0] = 0;
    CHECK_EQ(hlsnap_kvm_probe(&last), HLSNAP_ERR_HYPERVISOR);
    CHECK(last.os_errno == EINVAL && strstr(last.msg, "KVM_SET_MSRS") && strstr(last.msg, "cannot do it"));
}

/* KVM_CREATE_VM is interrupted by signals; the next try succeeds. */
static volatile sig_atomic_t interruptions;
static void on_trap(int n, siginfo_t *info, void *context) {
    enum { RDI = 8, RSI = 9, RDX = 12, RAX = 13 }; /* REG_x are GNU's */
    long long *regs = (long long *)((ucontext_t *)context)->uc_mcontext.gregs;
    const int before = errno;
    long r;
    (void)n, (void)info;
    r = interruptions++ < 3 ? -1 : syscall(SYS_ioctl, (int)regs[RDI], regs[RSI], regs[RDX], 0x5afel);
    regs[RAX] = interruptions <= 3 ? -EINTR : r < 0 ? -errno : r;
    errno = before;
}
static void interrupted_run(void *user) {
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 0), BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_ioctl, 0, 5),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 24), BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)HLSNAP__KVM_CREATE_VM, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 40), BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 0x5afe, 1, 0),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP), BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)};
    const struct sock_fprog program = {HLSNAP_COUNT(code), code};
    struct sigaction on;
    (void)user;
    memset(&on, 0, sizeof(on));
    on.sa_sigaction = on_trap;
    on.sa_flags = SA_SIGINFO;
    sigaction(SIGSYS, &on, NULL);
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program)) {
        note("seccomp", "not here");
        return;
    }
    CHECK_EQ(hlsnap_kvm_probe(&last), HLSNAP_OK);
    CHECK_EQ(interruptions, 4);
}

static void kvm_refuses(void) {
    size_t i, k;
    NEED_KVM;
    in_a_child(no_msr_is_set, NULL);
    in_a_child(interrupted_run, NULL);
    for (i = 0; i < HLSNAP_COUNT(refusals); i++)
        for (k = 0; k < HLSNAP_COUNT(refused); k++) {
            refusal_case c = {&refusals[i], &refused[k]};
            if (is_slow && (i + k) % 4) continue;
            in_a_child(refusal_run, &c);
        }
}

/* What time limits and cancels are made of, refused: said before the guest runs, which nothing could end then. What takes back
   a signal is missed when one came. */
static const struct unstoppable { uint32_t number; bool realtime, cancellable; uint64_t wall_ns, cpu_ns; hlsnap_result code; const char *words; } unstoppable[] = {
    {SYS_clock_gettime, false, false, 0, 50000000u, HLSNAP_ERR_OS, "clock_gettime, for a CPU time limit"}, /* the other clock is the vDSO's */
    {SYS_rt_sigprocmask, false, false, 50000000u, 0, HLSNAP_ERR_OS, "rt_sigprocmask"},
    {SYS_rt_sigprocmask, false, true, 0, 0, HLSNAP_ERR_OS, "rt_sigprocmask"},
    {SYS_timer_create, false, false, 50000000u, 0, HLSNAP_ERR_OS, "timer_create"}, {SYS_timer_create, false, false, 0, 50000000u, HLSNAP_ERR_OS, "timer_create"},
    {SYS_timer_settime, false, false, 0, 50000000u, HLSNAP_ERR_OS, "timer_settime"},
    {SYS_rt_tgsigqueueinfo, false, true, 0, 0, HLSNAP_ERR_OS, "rt_tgsigqueueinfo, for a cancel"},
    {SYS_timer_create, true, true, 0, 0, HLSNAP_ERR_OS, "timer_create"}, {SYS_timer_settime, true, true, 0, 0, HLSNAP_ERR_OS, "timer_settime, for a cancel"},
    {SYS_rt_sigtimedwait, false, false, 50000000u, 0, HLSNAP_ERR_HYPERVISOR, "rt_sigtimedwait"},
    {SYS_rt_sigtimedwait, true, false, 0, 50000000u, HLSNAP_ERR_HYPERVISOR, "rt_sigtimedwait"},
    {SYS_timer_delete, true, false, 50000000u, 0, HLSNAP_ERR_TIMEOUT, "ran out"}};
static void unstoppable_run(void *user) {
    const struct unstoppable *u = (const struct unstoppable *)user;
    const hlsnap_value forever = hlsnap_u64(0);
    hlsnap_invocation one;
    options o = small;
    hlsnap_result r;
    sandbox *sb;
    if (u->realtime) o.cancel_signal = SIGRTMIN + 7;
    sb = start(&o);
    NEED(sb);
    if (u->cancellable) hlsnap_sandbox_get_interrupt(sb);
    memset(&one, 0, sizeof(one));
    CHECK_EQ(hlsnap_sandbox_find(sb, "spin", NULL, &one.target, &last), HLSNAP_OK);
    one.args = &forever, one.num_args = 1, one.timeout_ns = u->wall_ns, one.cpu_ns = u->cpu_ns;
    alarm(60);
    if (!refuse(u->number, 0, EPERM)) {
        note("seccomp", "not here");
        return;
    }
    r = hlsnap_sandbox_invoke(sb, &one, 1, NULL, NULL, &last);
    nap_us(100000); /* a timer that is left over comes now */
    if (CHECK_EQ(r, u->code) & CHECK_EQ(last.os_errno, r == HLSNAP_ERR_TIMEOUT ? 0 : EPERM) & CHECK(strstr(last.msg, u->words) != NULL) &
        CHECK_EQ(ready(sb), r == HLSNAP_ERR_OS) & CHECK_EQ(hlsnap__kvm_num_armed, r != HLSNAP_ERR_OS)) return; /* it stays blocked */
    printf("# system call %u, signal %s: %s\n", u->number, u->realtime ? "realtime" : "SIGURG", last.msg);
}
/* The same of a call without limits inside one that has one, whose signal the thread has blocked. */
static void refuses_inside(void *user) {
    const hlsnap_value forever = hlsnap_u64(0);
    alarm(60);
    if (!refuse(SYS_rt_sigprocmask, 0, EPERM)) {
        note("seccomp", "not here");
        return;
    }
    CHECK_EQ(hlsnap_sandbox_call((sandbox *)user, "spin", &forever, 1, NULL, &last), HLSNAP_ERR_OS);
    CHECK(strstr(last.msg, "rt_sigprocmask") != NULL);
}
static void unstoppable_inside_run(void *user) {
    hook h = {refuses_inside, NULL};
    options o = small;
    sandbox *sb;
    (void)user;
    h.user = start(&small);
    o.hook = &h;
    sb = start(&o);
    NEED(h.user ? sb : NULL);
    CHECK_EQ(call_limited(sb, "host_void", HLSNAP_NO_ARGS, 50000000u), HLSNAP_OK);
}
static void unstoppable_is_refused(void) {
    size_t i;
    NEED_KVM;
    in_a_child(unstoppable_inside_run, NULL);
    for (i = 0; i < HLSNAP_COUNT(unstoppable); i++) {
        struct unstoppable u = unstoppable[i];
        in_a_child(unstoppable_run, &u);
    }
}

/* A KVM that answers, but not what is needed. */
static void refusal_probe(void *user) {
    hlsnap__kvm_facts_state = 0;
    if (!refuse(SYS_openat, 0, *(const int *)user)) {
        note("seccomp", "not here");
        return;
    }
    last.os_errno = 0, last.msg[0] = 0;
    hlsnap_kvm_probe(&last);
}
static const struct opened { int error; hlsnap_result code; const char *words; } opened[] = {
    {ENOENT, HLSNAP_ERR_HYPERVISOR, "modprobe"}, {EACCES, HLSNAP_ERR_HYPERVISOR, "no permission"}, {EPERM, HLSNAP_ERR_HYPERVISOR, "--device /dev/kvm"},
    {ENODEV, HLSNAP_ERR_HYPERVISOR, "modprobe"}, {ENXIO, HLSNAP_ERR_HYPERVISOR, "modprobe"}, {EBUSY, HLSNAP_ERR_HYPERVISOR, "VirtualBox"},
    {EMFILE, HLSNAP_ERR_OS, "RLIMIT_NOFILE"}, {ENFILE, HLSNAP_ERR_OS, "too many files"}, {ENOMEM, HLSNAP_ERR_MEMORY, "memory"}};
static void open_run(void *user) {
    const struct opened *o = (const struct opened *)user;
    refusal_probe(&((struct opened *)user)->error);
    if (CHECK_EQ(last.code, o->code) & CHECK_EQ(last.os_errno, o->error) & CHECK(strstr(last.msg, o->words) != NULL)) return;
    printf("# errno %d: %s\n", o->error, last.msg);
}
/* Something else in the place of /dev/kvm, for a user who is in no group. */
static const struct instead { bool file; uint32_t gid; int error; const char *words, *never; } insteads[] = {
    {false, 0, EACCES, "no group of its own may use it", "usermod"}, {false, 65534, EACCES, "no group of its own may use it", "usermod"},
    {false, 4711, EACCES, "usermod -aG", "no group of its own"}, {true, 0, ENOTTY, "no device but a file", "seccomp"}};
static void instead_run(void *user) {
    const struct instead *x = (const struct instead *)user;
    char path[64];
    int made;
    snprintf(path, sizeof(path), "/tmp/hlsnap-kvm-%d", getpid());
    if (geteuid() || syscall(SYS_unshare, 0x20000 /* CLONE_NEWNS */) || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL)) {
        note("mounts of its own", "not here");
        return;
    }
    made = mknod(path, (x->file ? S_IFREG : S_IFCHR) | 0660, x->file ? 0 : (10 << 8 | 232));
    if (made == 0) made = chmod(path, x->file ? 0666 : 0660) || chown(path, 0, x->gid) || mount(path, "/dev/kvm", NULL, MS_BIND, NULL);
    unlink(path);
    if (made || syscall(SYS_setgroups, 0, NULL) || setgid(65533) || setuid(65533)) {
        note("a device of its own", "not here");
        return;
    }
    hlsnap__kvm_facts_state = 0;
    last.os_errno = 0, last.msg[0] = 0;
    CHECK_EQ(hlsnap_kvm_probe(&last), HLSNAP_ERR_HYPERVISOR);
    if (CHECK_EQ(last.os_errno, x->error) & CHECK(strstr(last.msg, x->words) != NULL) & CHECK(strstr(last.msg, x->never) == NULL)) return;
    printf("# %s: %s\n", x->words, last.msg);
}

static void kvm_is_not_there(void) {
    size_t i;
    NEED_KVM;
    for (i = 0; i < HLSNAP_COUNT(insteads); i++) {
        struct instead x = insteads[i];
        in_a_child(instead_run, &x);
    }
    for (i = 0; i < HLSNAP_COUNT(opened); i++) {
        struct opened o = opened[i];
        in_a_child(open_run, &o);
    }
}

/* ---- >>signals: full queues, handlers, strangers ---- */

static void *cancels_after_a_while(void *user) {
    nap_us(50000);
    return hlsnap_interrupt_cancel((hlsnap_interrupt *)user) ? user : NULL;
}

/* Another thread's cancel ends a guest that spins, and the sandbox is as good as new. */
static void cancelled_from_elsewhere(sandbox *sb, snapshot *s, hlsnap_interrupt *h) {
    hlsnap_value forever = hlsnap_u64(0);
    void *answer = NULL;
    pthread_t t;
    pthread_create(&t, NULL, cancels_after_a_while, h);
    CHECK_EQ(call(sb, "spin", &forever, 1, NULL), HLSNAP_ERR_CANCELLED);
    pthread_join(t, &answer);
    CHECK(answer != NULL);
    CHECK_EQ(restore(sb, s), HLSNAP_OK);
    CHECK_EQ(call_u64(sb, "count"), 7);
}

/* The queue fills while the guest runs: the timer that a cancel goes by has its place there. */
static void *fills_and_cancels(void *user) {
    nap_us(50000);
    CHECK(limit_set(RLIMIT_SIGPENDING, 0));
    return hlsnap_interrupt_cancel((hlsnap_interrupt *)user) ? user : NULL;
}
static void full_meanwhile(sandbox *sb, snapshot *s) {
    hlsnap_interrupt *h = hlsnap_sandbox_get_interrupt(sb);
    hlsnap_value forever = hlsnap_u64(0);
    const uint64_t since = now();
    void *answer = NULL;
    pthread_t t;
    pthread_create(&t, NULL, fills_and_cancels, h);
    CHECK_EQ(call_limited(sb, "spin", &forever, 1, 5000000000u), HLSNAP_ERR_CANCELLED);
    CHECK(now() - since < 2000000000u);
    pthread_join(t, &answer);
    CHECK(answer != NULL);
    CHECK_EQ(restore(sb, s), HLSNAP_OK);
    hlsnap_interrupt_release(h);
}

static volatile sig_atomic_t given_to_us;
static void on_given(int n) { (void)n, given_to_us++; }
static void full_queue(void *user) {
    const bool realtime = *(const bool *)user;
    options o = small;
    hlsnap_interrupt *h;
    sandbox *sb;
    snapshot *s;
    if (realtime) o.cancel_signal = SIGRTMIN + 7;
    sb = start(&o);
    NEED(sb);
    s = take(sb);
    if (realtime) full_meanwhile(sb, s);
    CHECK(limit_set(RLIMIT_SIGPENDING, 0));
    CHECK_EQ(call_limited(sb, "nop", HLSNAP_NO_ARGS, 1000000000u), HLSNAP_ERR_OS); /* a time limit needs a place in the queue */
    CHECK(last.os_errno == EAGAIN && strstr(last.msg, "RLIMIT_SIGPENDING") && ready(sb));
    h = hlsnap_sandbox_get_interrupt(sb);
    if (realtime) { /* and so does this: said before, not when it is too late */
        CHECK_EQ(call(sb, "nop", HLSNAP_NO_ARGS, NULL), HLSNAP_ERR_OS);
        CHECK(last.os_errno == EAGAIN && ready(sb));
        return;
    }
    signal(SIGURG, on_given);
    cancelled_from_elsewhere(sb, s, h);
    CHECK_EQ(given_to_us, 0); /* what came without its sender's name was ours all the same */
}
static void cancel_with_a_full_queue(void) {
    bool realtime;
    NEED_KVM;
    for (realtime = false;; realtime = true) {
        in_a_child(full_queue, &realtime);
        if (realtime) break;
    }
}

/* A host that was started with signals ignored, as nohup and some supervisors do, all of them here. */
static void ignored(void *user) {
    hlsnap_value forever = hlsnap_u64(0);
    sandbox *sb;
    snapshot *s;
    int i;
    (void)user;
    for (i = 1; i <= SIGRTMAX; i++) signal(i, SIG_IGN);
    sb = start(&small);
    NEED(sb);
    s = take(sb);
    CHECK_EQ(call_limited(sb, "spin", &forever, 1, 2000000), HLSNAP_ERR_TIMEOUT);
    CHECK_EQ(restore(sb, s), HLSNAP_OK);
    cancelled_from_elsewhere(sb, s, hlsnap_sandbox_get_interrupt(sb));
}
static void cancel_where_signals_are_ignored(void) {
    NEED_KVM;
    in_a_child(ignored, NULL);
}

/* A handler on the sandbox's own thread cancels, wherever it interrupts the library. */
static struct in_handler { hlsnap_interrupt *h; uint32_t entered, left, hits; } in_handler;
static void on_alarm_cancel(int n) {
    const int before = errno;
    (void)n;
    errno = 4711;
    in_handler.entered++;
    in_handler.hits += hlsnap_interrupt_cancel(in_handler.h);
    in_handler.left++;
    test_bad += errno != 4711;
    errno = before;
}
static void cancel_in_handler(void) {
    const struct itimerval often = {{0, is_slow ? 20011 : 211}, {0, 211}}, never = {{0, 0}, {0, 0}};
    struct sigaction on, old;
    const uint64_t end = now() + 700000000u;
    uint32_t calls = 0, cancelled = 0;
    snapshot *s;
    sandbox *sb;
    NEED_KVM;
    sb = start(&small);
    NEED(sb);
    s = take(sb);
    memset(&in_handler, 0, sizeof(in_handler));
    in_handler.h = hlsnap_sandbox_get_interrupt(sb);
    memset(&on, 0, sizeof(on));
    on.sa_handler = on_alarm_cancel;
    on.sa_flags = SA_RESTART;
    sigaction(SIGALRM, &on, &old);
    setitimer(ITIMER_REAL, &often, NULL);
    while (now() < end) {
        const hlsnap_result r = call(sb, "nop", HLSNAP_NO_ARGS, NULL);
        CHECK(r == HLSNAP_OK || r == HLSNAP_ERR_CANCELLED);
        calls++;
        cancelled += r != HLSNAP_OK;
        if (r) CHECK_EQ(restore(sb, s), HLSNAP_OK);
    }
    setitimer(ITIMER_REAL, &never, NULL);
    sigaction(SIGALRM, &old, NULL);
    CHECK_EQ(in_handler.entered, in_handler.left);
    CHECK(in_handler.hits >= cancelled && cancelled > 0 && calls > cancelled); /* a call may be hit twice */
    hlsnap_interrupt_release(in_handler.h);
    hlsnap_sandbox_destroy(sb);
    hlsnap_snapshot_release(s);
}

/* Many threads cancel one sandbox as fast as they can, some when no call is in progress. */
static uint32_t late_signals;
static void on_late(int n) { (void)n, late_signals++; }
typedef struct hammer { hlsnap_interrupt *h; int32_t stop; uint64_t hits; } hammer;
static void *hammers(void *user) {
    hammer *m = (hammer *)user;
    while (!load32(&m->stop)) m->hits += hlsnap_interrupt_cancel(m->h), sched_yield();
    return NULL;
}
static void hammered(int signal_number) {
    const uint32_t rounds = is_slow ? 50 : 1500;
    hammer m[3];
    pthread_t t[3];
    uint32_t i, k, cancelled = 0;
    struct sigaction on, old;
    options o = small;
    signals before;
    snapshot *s;
    sandbox *sb;
    o.cancel_signal = signal_number == SIGURG ? 0 : signal_number;
    sb = start(&o);
    NEED(sb);
    s = take(sb);
    late_signals = 0;
    memset(&on, 0, sizeof(on));
    on.sa_handler = on_late; /* a signal that came after its call would show here */
    sigaction(signal_number, &on, &old);
    signals_get(&before);
    for (i = 0; i < 3; i++) {
        m[i].h = hlsnap_sandbox_get_interrupt(sb), m[i].stop = 0, m[i].hits = 0;
        pthread_create(&t[i], NULL, hammers, &m[i]);
    }
    for (k = 0; (k < rounds || (!cancelled && k < rounds * 20)) && test_bad < 5; k++) { /* until the machine's one CPU gave them a turn */
        hlsnap_value n = hlsnap_u64(2000);
        const hlsnap_result r = k % 3 ? call(sb, "nop", HLSNAP_NO_ARGS, NULL) : call_limited(sb, "spin", &n, 1, 1000000000u);
        CHECK(r == HLSNAP_OK || r == HLSNAP_ERR_CANCELLED);
        cancelled += r != HLSNAP_OK;
        if (r) CHECK_EQ(restore(sb, s), HLSNAP_OK);
    }
    for (i = 0; i < 3; i++) {
        store32(&m[i].stop, 1);
        pthread_join(t[i], NULL);
        hlsnap_interrupt_release(m[i].h);
    }
    CHECK(cancelled > 0);
    CHECK(signals_same(&before));
    CHECK_EQ(late_signals, 0);
    sigaction(signal_number, &old, NULL);
    CHECK_EQ(restore(sb, s), HLSNAP_OK);
    CHECK_EQ(call_u64(sb, "count"), 7);
    hlsnap_sandbox_destroy(sb);
    hlsnap_snapshot_release(s);
}
static void cancel_hammered(void) {
    NEED_KVM;
    hammered(SIGURG);
    hammered(SIGRTMIN + 7);
}

/* A call ends by itself while a cancel is on its way to it: the end waits, so that nothing hits what comes after. */
static int32_t slow_kick; /* 1 on its way, 2 done */
static void kicks_slowly(hlsnap__shell *shell) {
    store32(&slow_kick, 1);
    nap_us(50000);
    hlsnap_kvm()->cancel(shell);
    store32(&slow_kick, 2);
}
static void *cancels_at_once(void *user) { return hlsnap_interrupt_cancel((hlsnap_interrupt *)user) ? user : NULL; }
static void wait_for_kick(void *user) {
    pthread_create((pthread_t *)user, NULL, cancels_at_once, in_handler.h);
    while (!load32(&slow_kick)) sched_yield();
}
static void cancel_is_awaited(void) {
    hlsnap_hypervisor slow = *hlsnap_kvm();
    const hlsnap_hypervisor *usual = hv;
    options o = small;
    pthread_t t;
    hook h = {wait_for_kick, &t};
    void *answer = NULL;
    signals before;
    sandbox *sb;
    snapshot *s;
    NEED_KVM;
    slow.cancel = kicks_slowly;
    hv = &slow;
    o.hook = &h;
    sb = start(&o);
    hv = usual;
    NEED(sb);
    s = take(sb);
    in_handler.h = hlsnap_sandbox_get_interrupt(sb);
    signals_get(&before);
    slow_kick = 0;
    CHECK_EQ(call(sb, "host_void", HLSNAP_NO_ARGS, NULL), HLSNAP_ERR_CANCELLED);
    CHECK_EQ(load32(&slow_kick), 2);
    pthread_join(t, &answer);
    CHECK(answer != NULL);
    CHECK(signals_same(&before));
    CHECK_EQ(restore(sb, s), HLSNAP_OK);
    CHECK_EQ(call_u64(sb, "count"), 7);
    hlsnap_interrupt_release(in_handler.h);
    hlsnap_sandbox_destroy(sb);
    hlsnap_snapshot_release(s);
}

/* A call inside a call: a cancel of the outer one ends the inner one's guest, too. */
static hlsnap_result inner_result;
static void spins_inside(void *user) {
    hlsnap_value forever = hlsnap_u64(0);
    inner_result = hlsnap_sandbox_call((sandbox *)user, "spin", &forever, 1, NULL, NULL);
}
static void cancel_from_around(void) {
    const int numbers[] = {0, SIGRTMIN + 7};
    int i;
    NEED_KVM;
    for (i = 0; i < 2; i++) {
        options o = small;
        hook h = {spins_inside, NULL};
        hlsnap_interrupt *outer;
        pthread_t t;
        void *answer = NULL;
        sandbox *sb;
        o.cancel_signal = numbers[i];
        h.user = start(&o);
        o.hook = &h;
        sb = start(&o);
        NEED(h.user ? sb : NULL);
        outer = hlsnap_sandbox_get_interrupt(sb);
        pthread_create(&t, NULL, cancels_after_a_while, outer);
        CHECK_EQ(call(sb, "host_void", HLSNAP_NO_ARGS, NULL), HLSNAP_ERR_CANCELLED);
        pthread_join(t, &answer);
        CHECK(answer != NULL);
        CHECK_EQ(inner_result, HLSNAP_ERR_TIMEOUT);
        hlsnap_interrupt_release(outer);
        hlsnap_sandbox_destroy(sb);
        hlsnap_sandbox_destroy((sandbox *)h.user);
    }
}

/* In the child of a fork no call is in progress, whatever another thread of the parent did at that moment. */
static void forks_and_cancels(void *user) {
    const pid_t child = fork();
    int status = -1;
    if (child == 0) {
        const bool answer = hlsnap_interrupt_cancel(in_handler.h);
        hlsnap_sandbox_destroy((sandbox *)user);
        _exit(answer || hlsnap_interrupt_cancel(in_handler.h));
    }
    CHECK(waitpid(child, &status, 0) == child && status == 0);
}
static void cancel_in_a_child(void) {
    options o = small;
    hook h = {forks_and_cancels, NULL};
    sandbox *sb;
    NEED_KVM;
    o.hook = &h;
    sb = start(&o);
    NEED(sb);
    h.user = sb;
    in_handler.h = hlsnap_sandbox_get_interrupt(sb);
    CHECK_EQ(call(sb, "host_void", HLSNAP_NO_ARGS, NULL), HLSNAP_OK);
    CHECK_EQ(call(sb, "nop", HLSNAP_NO_ARGS, NULL), HLSNAP_OK);
    hlsnap_interrupt_release(in_handler.h);
    hlsnap_sandbox_destroy(sb);
}

/* The cancel signal when others send it: to this process and to this thread, during calls that end by themselves, by their
   limit, and by a cancel. */
static struct strangers { int process, thread, values; } strangers;
static void on_stranger(int n, siginfo_t *info, void *context) {
    (void)n, (void)context;
    strangers.process += info->si_code == SI_USER;
    strangers.thread += info->si_code == SI_TKILL;
    strangers.values += info->si_code == SI_QUEUE ? info->si_value.sival_int : 0;
}
typedef struct sender { int signal; pid_t pid; pthread_t thread; hlsnap_interrupt *h; } sender;
static void *sends(void *user) {
    const sender *s = (const sender *)user;
    union sigval v;
    nap_us(3000);
    pthread_kill(s->thread, s->signal); /* as a runtime does that stops its threads */
    nap_us(3000);
    v.sival_int = 40;
    if (s->signal >= SIGRTMIN) sigqueue(s->pid, s->signal, v);
    if (s->signal >= SIGRTMIN) v.sival_int = 2, sigqueue(s->pid, s->signal, v);
    if (fork() == 0) {
        kill(s->pid, s->signal);
        _exit(0);
    }
    wait(NULL);
    nap_us(3000);
    if (s->h) hlsnap_interrupt_cancel(s->h);
    return NULL;
}
static void strangers_signals(void) {
    const int numbers[] = {0, SIGRTMIN + 7};
    uint32_t i;
    NEED_KVM;
    for (i = 0; i < 6; i++) {
        hlsnap_value forever = hlsnap_u64(0);
        options o = small;
        struct sigaction on, old;
        hlsnap_interrupt *h = NULL;
        sigset_t mine, kept;
        pthread_t t;
        sandbox *sb;
        sender to;
        o.cancel_signal = numbers[i % 2];
        to.signal = numbers[i % 2] ? numbers[i % 2] : SIGURG, to.pid = getpid(), to.thread = pthread_self();
        sb = start(&o);
        NEED(sb);
        if (i / 2) h = hlsnap_sandbox_get_interrupt(sb);
        to.h = i / 2 == 2 ? h : NULL;
        memset(&strangers, 0, sizeof(strangers));
        memset(&on, 0, sizeof(on));
        on.sa_sigaction = on_stranger;
        on.sa_flags = SA_SIGINFO;
        sigaction(to.signal, &on, &old);
        sigfillset(&mine);
        pthread_sigmask(SIG_BLOCK, &mine, &kept); /* the sender's thread is not to take them */
        pthread_create(&t, NULL, sends, &to);
        pthread_sigmask(SIG_SETMASK, &kept, NULL);
        if (to.h) /* a bound only for what hangs: how long others take to send is theirs */
            CHECK_EQ(call_limited(sb, "spin", &forever, 1, 60000000000), HLSNAP_ERR_CANCELLED);
        else
            CHECK_EQ(call_limited(sb, "spin", &forever, 1, is_slow ? 2000000000 : 60000000), HLSNAP_ERR_TIMEOUT);
        pthread_join(t, NULL);
        CHECK_EQ(strangers.process, 1);
        CHECK_EQ(strangers.thread, 1);
        CHECK_EQ(strangers.values, to.signal >= SIGRTMIN ? 42 : 0);
        sigaction(to.signal, &old, NULL);
        hlsnap_sandbox_destroy(sb);
        hlsnap_interrupt_release(h);
    }
}

/* ---- >>odd-exits: RFLAGS.TF and interrupt shadows at the instruction the guest leaves by ---- */

/* Nothing in a map is code, whatever its mode. */
static void maps_never_run(void) {
    static const hlsnap_map_mode modes[] = {HLSNAP_MAP_READ, HLSNAP_MAP_PRIVATE, HLSNAP_MAP_SHARED};
    static uint8_t code[4096] __attribute__((__aligned__(4096)));
    snapshot *s;
    sandbox *sb;
    size_t i;
    NEED_KVM;
    sb = start(&small);
    NEED(sb);
    s = take(sb);
    memset(code, 0xc3, sizeof(code)); /* ret */
    for (i = 0; i < HLSNAP_COUNT(modes); i++) {
        hlsnap_value v[2] = {hlsnap_u32(FAULT_EXEC), hlsnap_u64(HLSNAP__MAPS_GVA)};
        hlsnap_map map = HLSNAP_ZERO;
        map.name = "code", map.data = code, map.size = sizeof(code), map.mode = modes[i];
        CHECK_EQ(hlsnap_sandbox_map(sb, &map, &last), HLSNAP_OK);
        CHECK_EQ(sb->memory.maps[0].map.gva, HLSNAP__MAPS_GVA);
        CHECK_EQ(call(sb, "fault", v, 2, NULL), HLSNAP_ERR_FAULT);
        CHECK(last.vector == 14 && last.error_code == 0x15 && last.cr2 == HLSNAP__MAPS_GVA);
        CHECK_EQ(restore(sb, s), HLSNAP_OK);
        CHECK_EQ(hlsnap_sandbox_unmap(sb, "code", &last), HLSNAP_OK);
    }
    hlsnap_sandbox_destroy(sb);
    hlsnap_snapshot_release(s);
}

/* Each timer of a call has gone with it: it holds a place in the queue of signals, which is limited. */
static int timers_of_ours(void) {
    FILE *f = fopen("/proc/self/timers", "r");
    char line[256];
    int n = 0;
    if (!f) return -1;
    while (fgets(line, sizeof(line), f)) n += strncmp(line, "ID:", 3) == 0;
    fclose(f);
    return n;
}
static void no_timer_is_left(void) {
    const hlsnap_value forever = hlsnap_u64(0);
    const int before = timers_of_ours();
    hlsnap_invocation one;
    options o = small;
    snapshot *s;
    sandbox *sb;
    int i;
    NEED_KVM;
    if (before < 0) SKIP("a kernel without /proc/self/timers");
    for (i = 0; i < 2; i++) {
        o.cancel_signal = i ? SIGRTMIN + 7 : 0;
        sb = start(&o);
        NEED(sb);
        s = take(sb);
        memset(&one, 0, sizeof(one));
        CHECK_EQ(hlsnap_sandbox_find(sb, "nop", NULL, &one.target, &last), HLSNAP_OK);
        one.timeout_ns = one.cpu_ns = 10000000000u;
        CHECK_EQ(hlsnap_sandbox_invoke(sb, &one, 1, NULL, NULL, &last), HLSNAP_OK);
        CHECK_EQ(timers_of_ours(), before);
        CHECK_EQ(call_limited(sb, "spin", &forever, 1, 2000000), HLSNAP_ERR_TIMEOUT);
        CHECK_EQ(timers_of_ours(), before);
        CHECK_EQ(restore(sb, s), HLSNAP_OK);
        hlsnap_interrupt_release(hlsnap_sandbox_get_interrupt(sb));
        CHECK_EQ(call_u64(sb, "count"), 7);
        CHECK_EQ(timers_of_ours(), before);
        hlsnap_sandbox_destroy(sb);
        hlsnap_snapshot_release(s);
    }
}

/* A thread that changes its mask between two calls has the new one while the guest runs, too. */
static volatile sig_atomic_t blocked_hits;
static void on_blocked(int n) { (void)n, blocked_hits++; }
static void mask_of_the_thread(void) {
    struct sigaction on, old;
    sigset_t usr1;
    snapshot *s;
    sandbox *sb;
    NEED_KVM;
    sb = start(&small);
    NEED(sb);
    s = take(sb);
    memset(&on, 0, sizeof(on));
    on.sa_handler = on_blocked;
    sigaction(SIGUSR1, &on, &old);
    sigemptyset(&usr1), sigaddset(&usr1, SIGUSR1);
    CHECK_EQ(call_limited(sb, "nop", HLSNAP_NO_ARGS, 10000000000u), HLSNAP_OK);
    pthread_sigmask(SIG_BLOCK, &usr1, NULL);
    pthread_kill(pthread_self(), SIGUSR1);
    CHECK_EQ(call_limited(sb, "nop", HLSNAP_NO_ARGS, 10000000000u), HLSNAP_OK);
    CHECK_EQ(blocked_hits, 0);
    pthread_sigmask(SIG_UNBLOCK, &usr1, NULL);
    CHECK_EQ(blocked_hits, 1);
    sigaction(SIGUSR1, &old, NULL);
    hlsnap_sandbox_destroy(sb);
    hlsnap_snapshot_release(s);
}

static void odd_exits(void) {
    snapshot *s;
    sandbox *sb;
    uint32_t i, kind;
    NEED_KVM;
    sb = start(&small);
    NEED(sb);
    s = take(sb);
    for (i = 0; i < ODD_NUM * 4; i++) {
        hlsnap_value v[1];
        hlsnap_result r;
        char name[32];
        kind = i % ODD_NUM;
        v[0] = hlsnap_u32(kind);
        CHECK_EQ(restore(sb, s), HLSNAP_OK);
        if (i / ODD_NUM % 2) call_u64(sb, "count");
        r = call_limited(sb, "odd", v, 1, is_slow ? 2000000000 : 20000000);
        snprintf(name, sizeof(name), "odd exit %u", kind);
        note(name, r == HLSNAP_ERR_FAULT ? vector_text(last.vector, last.error_code) : hlsnap_result_name(r));
        CHECK(r == HLSNAP_ERR_PROTOCOL || r == HLSNAP_ERR_FAULT || (kind == ODD_TF_LOOP && r == HLSNAP_ERR_TIMEOUT));
        CHECK(poisoned(sb));
        if ((is_slow || (kind != ODD_MOVSS_OUT && kind != ODD_MOVSS_CALL && kind != ODD_POPSS_OUT)) &&
            r == HLSNAP_ERR_PROTOCOL) /* TF shows everywhere, a shadow where the CPU's own KVM runs */
            CHECK(strstr(last.msg, "TF or an interrupt shadow") || strstr(last.msg, "IN from"));
        CHECK_EQ(restore(sb, s), HLSNAP_OK);
        r = call(sb, "count", HLSNAP_NO_ARGS, NULL);
        if (!CHECK_EQ(r, HLSNAP_OK)) printf("# after odd exit %u: %s\n", kind, last.msg);
    }
    hlsnap_sandbox_destroy(sb);
    hlsnap_snapshot_release(s);
}

/* ---- >>the gate is tried by the host, and a guest has no say in it ---- */

static void gate_is_tried(void) {
    const hlsnap_value into[2] = {hlsnap_u32(FAULT_GATE), hlsnap_u64(HLSNAP__SYS_AT(HLSNAP__SYS_GATE) + HLSNAP__GATE_SCRUB)};
    const hlsnap_value forever = hlsnap_u64(0);
    int32_t works;
    snapshot *s;
    sandbox *sb;
    uint8_t *image;
    NEED_KVM;
    sb = start(&small);
    NEED(sb);
    s = take(sb);
    CHECK_EQ(call_u64(sb, "count"), 7);
    hlsnap__kvm_facts_gate[0] = HLSNAP__KVM_GATE_UNTRIED;
    CHECK_EQ(restore(sb, s), HLSNAP_OK);
    CHECK(call(sb, "fault", into, 2, NULL) == HLSNAP_ERR_FAULT); /* a guest that faults in the gate, in the very call it is tried for */
    works = hlsnap__kvm_facts_gate[0];
    note("the gate scrubs", works == HLSNAP__KVM_GATE_SCRUBS ? "yes" : works == HLSNAP__KVM_GATE_FAILS ? "no" : "is not to");
    if (!sb->shell->gate_scrubs) CHECK_EQ(works, HLSNAP__KVM_GATE_UNTRIED);
    else if (!getenv("VMX")) CHECK_EQ(works, HLSNAP__KVM_GATE_SCRUBS); /* Bochs leaves MXCSR alone, and is found out */
    CHECK_EQ(sb->stats.calls, 1); /* once */
    CHECK_EQ(restore(sb, s), HLSNAP_OK);
    CHECK(call(sb, "fault", into, 2, NULL) == HLSNAP_ERR_FAULT);
    CHECK_EQ(hlsnap__kvm_facts_gate[0], works);
    CHECK_EQ(restore(sb, s), HLSNAP_OK);
    image = hlsnap__memory_sys(&sb->memory) + HLSNAP__SYS_XSAVE * HLSNAP__PAGE;
    image[512] = image[520] = 3; /* restores x87 and SSE from the image: no exception, and yet no clearing */
    memset(image, 0x11, 24), image[24] = 0x80, image[25] = 0x1f, memset(image + 160, 0x77, 256);
    hlsnap__kvm_facts_gate[0] = HLSNAP__KVM_GATE_UNTRIED;
    CHECK_EQ(call_u64(sb, "count"), 7);
    if (works == HLSNAP__KVM_GATE_SCRUBS) CHECK_EQ(hlsnap__kvm_facts_gate[0], HLSNAP__KVM_GATE_FAILS);
    hlsnap__kvm_facts_gate[0] = HLSNAP__KVM_GATE_UNTRIED; /* a time limit that runs out during the trial is not lost on the guest */
    CHECK_EQ(restore(sb, s), HLSNAP_OK);
    CHECK_EQ(call_limited(sb, "spin", &forever, 1, 1), HLSNAP_ERR_TIMEOUT);
    hlsnap__kvm_facts_gate[0] = works;
    hlsnap_sandbox_destroy(sb);
    hlsnap_snapshot_release(s);
}

/* ---- >>neighbours: what one tenant does is not paid for by those behind it ---- */

static uint64_t heap_gva(const sandbox *sb, uint64_t page) { return gva_of(sb, HLSNAP__HEAP) + page * 4096; }
static void touch(sandbox *sb, uint64_t page, uint64_t pages, uint32_t every) {
    hlsnap_value v[4];
    v[0] = hlsnap_u64(heap_gva(sb, page)), v[1] = hlsnap_u64(pages * 4096), v[2] = hlsnap_u64(77), v[3] = hlsnap_u32(4096 * every);
    CHECK_EQ(call(sb, "fill", v, 4, NULL), HLSNAP_OK);
}
static uint64_t hot(const sandbox *sb) {
    hlsnap_stats st;
    hlsnap_sandbox_get_stats(sb, &st);
    return st.hot_pages;
}
static bool heap_is_zero(sandbox *sb, uint64_t page, uint64_t pages) {
    uint8_t bytes[4096];
    for (; pages--; page++)
        if (hlsnap_sandbox_read(sb, heap_gva(sb, page), bytes, sizeof(bytes), NULL) || !hlsnap__all_zero(bytes, sizeof(bytes))) return false;
    return true;
}

static void large_calls(void) {
    const uint64_t many = HLSNAP__HOT_MANY + 500;
    options o = plain;
    uint64_t usual;
    snapshot *s;
    sandbox *sb;
    int i;
    NEED_KVM;
    o.heap = 64 << 20;
    sb = start(&o);
    NEED(sb);
    s = take(sb);
    for (i = 0; i < 3; i++) call_u64(sb, "count"), CHECK_EQ(restore(sb, s), HLSNAP_OK);
    usual = hot(sb) + 50; /* the 40 looked at below show the page of zeros, which before Linux 6.7 looks private */
    touch(sb, 100, many * 2, 2); /* one large call, every other page: everything is given back at its own restore */
    CHECK_EQ(restore(sb, s), HLSNAP_OK);
    CHECK(hot(sb) <= usual);
    CHECK(heap_is_zero(sb, 100, 40));
    for (i = 0; i < 4; i++) call_u64(sb, "count"), CHECK_EQ(restore(sb, s), HLSNAP_OK);
    CHECK(hot(sb) <= usual);
    for (i = 0; i < 4; i++) { /* who changes many pages in each call keeps them from the second on */
        touch(sb, 100, many, 1);
        CHECK_EQ(restore(sb, s), HLSNAP_OK);
        if (i == 0) CHECK(hot(sb) <= usual);
        else CHECK(hot(sb) >= many);
        CHECK(heap_is_zero(sb, 100, 40));
    }
    for (i = 0; i < 3; i++) call_u64(sb, "count"), CHECK_EQ(restore(sb, s), HLSNAP_OK); /* and whoever comes then pays at most twice */
    CHECK(hot(sb) <= usual);
    touch(sb, 100, HLSNAP__HOT_MANY - 100, 2); /* just below: the same */
    CHECK_EQ(restore(sb, s), HLSNAP_OK);
    for (i = 0; i < 3; i++) call_u64(sb, "count"), CHECK_EQ(restore(sb, s), HLSNAP_OK);
    CHECK(hot(sb) <= usual);
    touch(sb, 100, many, 1);
    CHECK_EQ(restore(sb, s), HLSNAP_OK);
    CHECK(hot(sb) <= usual);
    hlsnap_sandbox_destroy(sb);
    hlsnap_snapshot_release(s);
}

/* Pages of the heap that are present in this process. */
static uint64_t present(const sandbox *sb) {
    const hlsnap__region *r = hlsnap__layout_find(&sb->memory.layout, HLSNAP__HEAP);
    const uint8_t *at = hlsnap__memory_at(&sb->memory, hlsnap__region_page(&sb->memory.layout, r));
    const int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    uint64_t i, entry, n = 0;
    for (i = 0; i < r->pages; i++)
        n += pread(fd, &entry, 8, (off_t)(((uintptr_t)at / 4096 + i) * 8)) == 8 && entry >> 62;
    close(fd);
    return n;
}

/* After retire no page is resident that the last tenant used; after a plain restore they are, which is what it is fast by. */
static void residency(void) {
    options o = small;
    uint64_t fresh;
    snapshot *s;
    sandbox *sb, *other;
    int from_state;
    NEED_KVM;
    o.heap = 8 << 20;
    sb = start(&o);
    NEED(sb);
    s = take(sb);
    other = from(s, &o);
    NEED(other);
    fresh = present(other);
    for (from_state = 0; from_state < 2; from_state++) {
        const void *shell;
        touch(other, 300, 60, 3);
        CHECK_EQ(restore(other, s), HLSNAP_OK);
        CHECK(present(other) >= fresh + 20);
        touch(other, 300, 60, 3);
        if (from_state) { /* a tenant that ended by a fault is one, too */
            const hlsnap_value v[2] = {hlsnap_u32(FAULT_UD), hlsnap_u64(0)};
            CHECK_EQ(call(other, "fault", v, 2, NULL), HLSNAP_ERR_FAULT);
        }
        hlsnap_sandbox_retire(other);
        CHECK(poisoned(other));
        CHECK_EQ(call(other, "count", HLSNAP_NO_ARGS, NULL), HLSNAP_ERR_STATE);
        shell = other->shell;
        CHECK_EQ(restore(other, s), HLSNAP_OK);
        CHECK(other->shell == shell); /* the VM stays */
        CHECK_EQ(present(other), fresh);
        CHECK_EQ(call_u64(other, "count"), 7);
    }
    hlsnap_sandbox_destroy(sb);
    hlsnap_sandbox_destroy(other);
    hlsnap_snapshot_release(s);
}

/* What the guest sent, and what it was given, lies in buffers of the host's until the next restore, and their size does not stay. */
static size_t left_in(const hlsnap__buffer *b) {
    size_t i, left = 0;
    for (i = 0; i < b->cap; i++) left += b->data[i] == 'x';
    return left;
}
static void buffers_are_cleared(void) {
    options o = small;
    static const size_t sizes[] = {3u << 19, 5u << 20}; /* call, request and response fit the mailbox; they do not */
    hlsnap_value v, out;
    const uint8_t *kept;
    const void *rows;
    snapshot *s;
    sandbox *sb;
    size_t i;
    NEED_KVM;
    o.mailbox = 8 << 20;
    o.heap = 32 << 20;
    sb = start(&o);
    NEED(sb);
    s = take(sb);
    rows = sb->binding.rows;
    for (i = 0; i < HLSNAP_COUNT(sizes); i++) {
        char *big = (char *)malloc(sizes[i] + 1);
        memset(big, 'x', sizes[i]);
        big[sizes[i]] = 0;
        v = hlsnap_str(big);
        CHECK_EQ(call(sb, "pass_str", &v, 1, &out), HLSNAP_OK);
        CHECK_EQ(out.size, sizes[i]);
        CHECK_EQ(sb->response.cap > 0, i == 1);
        CHECK_EQ(sb->response.size, 0);
        kept = sb->response.data; /* for the next one, which need not touch new memory */
        CHECK_EQ(call(sb, "pass_str", &v, 1, &out), HLSNAP_OK);
        CHECK(sb->response.data == kept);
        CHECK_EQ(left_in(&sb->response) > 0, i == 1);
        CHECK_EQ(sb->response.most > sizes[i], i == 1); /* to be zeroed */
        CHECK_EQ(restore(sb, s), HLSNAP_OK);
        CHECK(sb->binding.rows == rows); /* nor is anything bound anew for the same guest */
        CHECK_EQ(left_in(&sb->results) + left_in(&sb->request) + left_in(&sb->response), 0);
        free(big);
    }
    CHECK_EQ(call(sb, "nop", HLSNAP_NO_ARGS, NULL), HLSNAP_OK);
    CHECK_EQ(restore(sb, s), HLSNAP_OK);
    CHECK_EQ(call(sb, "nop", HLSNAP_NO_ARGS, NULL), HLSNAP_OK);
    CHECK(sb->results.cap <= HLSNAP__BUFFER_KEPT && sb->request.cap <= HLSNAP__BUFFER_KEPT && sb->response.cap <= HLSNAP__BUFFER_KEPT);
    hlsnap_sandbox_destroy(sb);
    hlsnap_snapshot_release(s);
}

/* What a host function returned and then took back, or what did not fit, is nowhere in what the guest can read. */
static hlsnap_result host_takes_back(hlsnap_call *call, void *user) {
    const int how = *(const int *)user;
    char long_text[9000];
    memset(long_text, '.', sizeof(long_text));
    memcpy(long_text + 3000, "SECRET", 6);
    long_text[how == 2 ? sizeof(long_text) - 1 : 4000] = 0;
    if (how == 2) return hlsnap_call_return_fmt(call, "%s", long_text);    /* has no room in the mailbox */
    if (how == 3) return hlsnap_call_return_fmt(call, "%s%c!", long_text, 0); /* no str */
    hlsnap_call_return(call, hlsnap_str(long_text));
    if (how == 0) return hlsnap_call_fail(call, 1, "not allowed");
    if (how == 4) return hlsnap_call_return(call, hlsnap_str("short"));
    return HLSNAP_ERR_STATE;
}
static void results_taken_back(void) {
    hlsnap_function functions[NUM_FUNCTIONS];
    static uint8_t mailbox[16 << 10];
    hlsnap_value v = hlsnap_str("x"), out;
    hlsnap_sandbox_desc d;
    size_t i;
    sandbox *sb;
    int how;
    NEED_KVM;
    sb = start(&small);
    NEED(sb);
    desc_of(&small, functions, &d);
    for (i = 0; i < NUM_FUNCTIONS; i++)
        if (strcmp(functions[i].name, "host_str") == 0) functions[i].fn = host_takes_back, functions[i].user = &how;
    CHECK_EQ(hlsnap_sandbox_bind(sb, functions, NUM_FUNCTIONS, &last), HLSNAP_OK);
    for (how = 0; how < 5; how++) {
        CHECK_EQ(call(sb, "pass_str", &v, 1, &out), how == 4 || how == 2 ? HLSNAP_OK : HLSNAP_ERR_FUNCTION);
        CHECK_EQ(hlsnap_sandbox_read(sb, gva_of(sb, HLSNAP__MAILBOX), mailbox, sizeof(mailbox), &last), HLSNAP_OK);
        for (i = 0; i + 6 < sizeof(mailbox) && memcmp(mailbox + i, "SECRET", 6) != 0; i++) { }
        if (!CHECK(i + 6 == sizeof(mailbox))) printf("# way %d: at offset %zu\n", how, i);
    }
    hlsnap_sandbox_destroy(sb);
}

/* ---- >>no-proc, no descriptors, locked memory ---- */

static long rss_pages(void) {
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return u.ru_maxrss / 4;
}

static void steady_without(sandbox *sb, snapshot *s, bool scans) { /* cost follows what changed, not the heap's size */
    const long before = rss_pages();
    snapshot *later;
    int i;
    for (i = 0; i < 12; i++) {
        touch(sb, 100 + (uint64_t)i * 7, 2, 1);
        CHECK_EQ(restore(sb, s), HLSNAP_OK);
        CHECK(heap_is_zero(sb, 100, 100));
        CHECK_EQ(call_u64(sb, "count"), 7);
    }
    CHECK(scans || sb->memory.pagemap < 0);
    touch(sb, 900, 3, 1);
    later = take(sb); /* finds what changed all the same */
    CHECK_EQ(restore(sb, s), HLSNAP_OK);
    CHECK(heap_is_zero(sb, 900, 3));
    CHECK_EQ(restore(sb, later), HLSNAP_OK);
    CHECK(!heap_is_zero(sb, 900, 1) && !heap_is_zero(sb, 902, 1) && heap_is_zero(sb, 903, 5));
    CHECK(hot(sb) < 1024);
    CHECK(rss_pages() - before < 4096);
    hlsnap_snapshot_release(later);
}
static void no_proc_run(void *user) {
    const char *dir = (const char *)user;
    options o = small;
    snapshot *s;
    sandbox *sb;
    o.heap = 64 << 20;
    sb = start(&o);
    NEED(sb);
    s = take(sb);
    if (sb->memory.pagemap >= 0) close(sb->memory.pagemap), sb->memory.pagemap = -1;
    if (chroot(dir) != 0 || chdir("/") != 0) note("chroot", "not here");
    else steady_without(sb, s, false);
    hlsnap_sandbox_destroy(sb);
    hlsnap_snapshot_release(s);
}
static void without_proc(void) {
    char dir[] = "/tmp/hlsnap-no-proc-XXXXXX";
    NEED_KVM;
    if (!CHECK(mkdtemp(dir) != NULL)) return;
    in_a_child(no_proc_run, dir);
    rmdir(dir);
}

static void no_descriptors_run(void *user) {
    struct rlimit r = {3, 4096};
    options o = small;
    snapshot *s, *t;
    sandbox *sb;
    (void)user;
    o.heap = 64 << 20;
    sb = start(&o);
    NEED(sb);
    s = take(sb);
    if (sb->memory.pagemap >= 0) close(sb->memory.pagemap), sb->memory.pagemap = -1;
    touch(sb, 50, 4, 1);
    setrlimit(RLIMIT_NOFILE, &r);
    steady_without(sb, s, false);
    r.rlim_cur = 4096;
    setrlimit(RLIMIT_NOFILE, &r);
    touch(sb, 50, 4, 1);
    t = take(sb);
    steady_without(sb, s, true);
    CHECK(sb->memory.pagemap >= 0); /* as soon as there is one */
    hlsnap_sandbox_destroy(sb);
    hlsnap_snapshot_release(s);
    hlsnap_snapshot_release(t);
}
static void without_descriptors(void) {
    NEED_KVM;
    in_a_child(no_descriptors_run, NULL);
}

static void locked_run(void *user) {
    const bool before = *(const bool *)user;
    options o = small;
    long start_pages;
    snapshot *s;
    sandbox *sb, *of;
    int i;
    if (before && mlockall(MCL_CURRENT | MCL_FUTURE)) {
        note("mlockall", "not here");
        return;
    }
    start_pages = rss_pages();
    o.heap = 128 << 20;
    of = start(&o);
    NEED(of);
    touch(of, 4000, 3000, 1); /* mapped from a file, which locking would copy */
    s = take(of);
    sb = from(s, &o);
    NEED(sb);
    if (!before && mlockall(MCL_CURRENT)) {
        note("mlockall", "not here");
        return;
    }
    if (!before) CHECK_EQ(restore(sb, s), HLSNAP_OK), start_pages = rss_pages();
    steady_without(sb, s, true);
    CHECK(rss_pages() - start_pages < 8192);
    CHECK(present(sb) < 1024);
    hlsnap_sandbox_destroy(sb);
    hlsnap_sandbox_destroy(of);
    hlsnap_snapshot_release(s);
    if (before) return;
    sb = start(&small); /* so small that its pages are not given back at once, but when they are idle */
    NEED(sb);
    s = take(sb);
    CHECK_EQ(mlockall(MCL_CURRENT), 0);
    for (i = 0; i < 40; i++) CHECK_EQ(restore(sb, s), HLSNAP_OK), call_u64(sb, "count");
    CHECK(hot(sb) < 32);
    CHECK(present(sb) < 32);
    hlsnap_sandbox_destroy(sb);
    hlsnap_snapshot_release(s);
}
static void locked_memory(void) {
    bool before;
    NEED_KVM;
    for (before = false;; before = true) {
        in_a_child(locked_run, &before);
        if (before) break;
    }
}

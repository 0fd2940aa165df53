/* test_syscall.c - SYSCALL that leads back to CPL 3: what it keeps, and what attacks on the way there end in. Needs /dev/kvm.
   cc: cc -std=gnu11 -O2 -I.. test_syscall.c -o test_syscall          (-lpthread where the C library wants it)
   run: GUEST_DIR=... ./test_syscall [NAME]                           guest_syscall.elf lies in GUEST_DIR
   SVM=1: a slow machine, fewer rounds. What differs between kinds of KVM is accepted either way and noted. */
#define HLSNAP_IMPLEMENTATION
#include "hlsnap.h"
#include "hlsnap_kvm.h"
#include "guest_syscall.h"
#include "test.h"
#include <linux/kvm.h>
#include <pthread.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

typedef hlsnap_sandbox sandbox;
typedef hlsnap_snapshot snapshot;

/* ---- >>bench ---- */

static bool is_slow;
static char guest_file[512];
static hlsnap_error last;
static sys_where at;
#define GATE HLSNAP__SYS_AT(HLSNAP__SYS_GATE)
#define STUB (HLSNAP__SYS_AT(HLSNAP__SYS_STUBS) + HLSNAP__STUB_SYSCALL)
#define ANSWER(number) (0x5ca11 + (uint64_t)(number))
#define FLAGS_PLAIN 0x202u
#define NEED_KVM do { hlsnap_error e_; if (hlsnap_kvm_probe(&e_)) SKIP("no KVM"); if (access(guest_file, R_OK)) SKIP("no guest_syscall.elf in GUEST_DIR"); } while (0)
#define NEED(sb) do { if (!CHECK((sb) != NULL)) return; } while (0)

static bool hard(void) { return hlsnap__kvm_facts_syscall == HLSNAP__KVM_SYSCALL_HARD; }
static void note(const char *what, const char *seen) { /* each is said once */
    static char said[64][80];
    static unsigned n;
    char line[80];
    unsigned i;
    snprintf(line, sizeof(line), "%.38s: %.38s", what, seen);
    for (i = 0; i < n; i++)
        if (strcmp(said[i], line) == 0) return;
    if (n < 64) memcpy(said[n++], line, sizeof(line));
    printf("# note: %s\n", line);
}

/* The guest before its init; `entry` 0: it names none; 1: its own; else another address. */
static snapshot *pre_init(uint64_t entry) {
    hlsnap_guest_desc g = HLSNAP_ZERO;
    snapshot *s = NULL;
    g.path = guest_file;
    g.heap_size = 256 << 10;
    g.mailbox_size = 16 << 10;
    if (!CHECK_EQ(hlsnap_snapshot_from_guest(&g, &s, &last), HLSNAP_OK)) {
        printf("# %s\n", last.msg);
        return NULL;
    }
    if (entry != 1) s->guest->syscall = entry;
    return s;
}
static sandbox *from(snapshot *s, uint64_t timeout_ns) {
    hlsnap_sandbox_desc d = HLSNAP_ZERO;
    sandbox *sb = NULL;
    d.hypervisor = hlsnap_kvm();
    d.timeout_ns = timeout_ns;
    if (!s || !CHECK_EQ(hlsnap_sandbox_create_from(s, &d, &sb, &last), HLSNAP_OK)) printf("# %s\n", last.msg);
    return sb;
}
static hlsnap_result call(sandbox *sb, const char *name, const hlsnap_value *args, size_t num, hlsnap_value *out) {
    last.code = HLSNAP_OK, last.msg[0] = 0;
    return hlsnap_sandbox_call(sb, name, args, num, out, &last);
}
static hlsnap_result call_limited(sandbox *sb, const char *name, const hlsnap_value *args, size_t num, uint64_t ns) {
    hlsnap_invocation one = HLSNAP_ZERO;
    last.msg[0] = 0;
    if (hlsnap_sandbox_find(sb, name, NULL, &one.target, &last)) return last.code;
    one.args = args, one.num_args = num, one.timeout_ns = ns;
    return hlsnap_sandbox_invoke(sb, &one, 1, NULL, NULL, &last);
}
static hlsnap_result restore(sandbox *sb, snapshot *s) {
    const hlsnap_result r = hlsnap_sandbox_restore(sb, s, &last);
    if (r) printf("# restore: %s\n", last.msg);
    return r;
}
static uint64_t plain(sandbox *sb, uint64_t number) {
    hlsnap_value v = hlsnap_u64(number), out = HLSNAP_ZERO;
    return call(sb, "plain", &v, 1, &out) ? UINT64_MAX : out.as.u64;
}
static void peek(sandbox *sb, uint64_t gva, void *to, size_t n) { memcpy(to, sb->memory.mem + (gva - sb->memory.layout.base), n); }
static bool ready(const sandbox *sb) { return hlsnap_sandbox_get_state(sb) == HLSNAP_READY; }

/* A sandbox of a guest whose init has run, and a snapshot of that. */
static sandbox *start(snapshot **out, uint64_t entry) {
    snapshot *pre = pre_init(entry);
    sandbox *sb = from(pre, 0);
    hlsnap_value v;
    hlsnap_snapshot_release(pre);
    *out = NULL;
    if (!sb) return NULL;
    if (!CHECK_EQ(hlsnap_sandbox_snapshot(sb, out, &last), HLSNAP_OK) || !CHECK_EQ(call(sb, "where", HLSNAP_NO_ARGS, &v), HLSNAP_OK) ||
        !CHECK_EQ(v.size, sizeof(at))) {
        printf("# %s\n", last.msg);
        return NULL;
    }
    memcpy(&at, v.bytes, sizeof(at));
    CHECK_EQ(restore(sb, *out), HLSNAP_OK);
    return sb;
}

static uint64_t msr(const sandbox *sb, uint32_t index) {
    struct { uint32_t num, pad; struct kvm_msr_entry row; } m; /* kvm_msrs */
    memset(&m, 0, sizeof(m));
    m.num = 1, m.row.index = index;
    return hlsnap__ioctl(sb->shell->vcpu, KVM_GET_MSRS, (uintptr_t)&m) == 1 ? m.row.data : UINT64_MAX;
}
/* What KVM tells of the vCPU after the first call that follows a restore. */
static void check_vcpu(const sandbox *sb) {
    const bool with = sb->guest->syscall != 0;
    struct kvm_sregs s;
    if (!CHECK_EQ(hlsnap__ioctl(sb->shell->vcpu, KVM_GET_SREGS, (uintptr_t)&s), 0)) return;
    CHECK_EQ(s.efer & ~0x400ull, with ? 0x901 : 0x900);
    CHECK_EQ(s.cr4 >> 16 & 1, with && sb->shell->fsgsbase); /* shown by CPUID; elsewhere it is on without */
    CHECK_EQ(s.fs.base, hlsnap__layout_find(&sb->memory.layout, HLSNAP__IDENTITY)->gva);
    CHECK_EQ(s.gs.base, 0);
    CHECK_EQ(s.cs.selector, HLSNAP__SEL_CODE3);
    CHECK_EQ(s.ss.selector, HLSNAP__SEL_DATA3);
    CHECK(s.ds.selector == HLSNAP__SEL_DATA3 && s.es.selector == HLSNAP__SEL_DATA3 && s.fs.selector == HLSNAP__SEL_DATA3 && s.gs.selector == HLSNAP__SEL_DATA3);
    if (with) {
        CHECK_EQ(msr(sb, 0xc0000082), hard() ? STUB : GATE + HLSNAP__GATE_SYSCALL);
        CHECK_EQ(msr(sb, 0xc0000081), 0x0013000800000000);
        CHECK_EQ(msr(sb, 0xc0000084), 0x257fd5);
    }
}
/* Whatever was done to the sandbox: after a restore it works, and nothing is left. */
static void sound(sandbox *sb, snapshot *s) {
    sys_regs seen;
    if (!CHECK_EQ(restore(sb, s), HLSNAP_OK)) return;
    if (!CHECK_EQ(plain(sb, 39), ANSWER(39))) printf("# %s\n", last.msg);
    peek(sb, at.seen, &seen, sizeof(seen));
    CHECK(seen.count == 1 && seen.rax == 39);
    if (sb->shell) check_vcpu(sb);
    CHECK_EQ(restore(sb, s), HLSNAP_OK);
}

/* ---- >>kept: all registers, flags and vector state ---- */

static hlsnap_result raw(sandbox *sb, const sys_regs *in, sys_regs *seen, sys_regs *left) {
    hlsnap_value v = hlsnap_bytes(in, sizeof(*in));
    const hlsnap_result r = call(sb, "raw", &v, 1, NULL);
    peek(sb, at.seen, seen, sizeof(*seen));
    peek(sb, at.left, left, sizeof(*left));
    return r;
}
static sys_regs pattern(uint64_t rax) {
    sys_regs r;
    uint64_t *words = (uint64_t *)&r;
    size_t i;
    memset(&r, 0, sizeof(r));
    for (i = 0; i < 13; i++) words[i] = 0x1111111111111111ull * (i + 1) ^ 0xa5;
    r.rax = rax, r.flags = FLAGS_PLAIN, r.rsp = at.bss + 4096, r.count = SYS_PLAIN;
    return r;
}
static void check_kept(sandbox *sb, const sys_regs *in) {
    static const uint64_t kept_flags = 0x264ed5, status = 0x8d5; /* ID AC NT DF IF, OF SF ZF AF PF CF; the latter are the gate's on the way */
    const uint64_t number = hard() && in->rax > 65535 ? 65535 : in->rax;
    sys_regs seen, left;
    uint8_t code[2];
    if (!CHECK_EQ(raw(sb, in, &seen, &left), HLSNAP_OK)) {
        printf("# %s\n", last.msg);
        return;
    }
    CHECK_EQ(seen.rax, number);
    CHECK_EQ(left.rax, ANSWER(number & 0xffffffff));
    CHECK(memcmp(&seen.rbx, &in->rbx, offsetof(sys_regs, rsp) - offsetof(sys_regs, rbx)) == 0);
    CHECK(memcmp(&left.rbx, &in->rbx, offsetof(sys_regs, rsp) - offsetof(sys_regs, rbx)) == 0);
    if (in->count == SYS_PLAIN) CHECK(seen.rsp == in->rsp && left.rsp == in->rsp);
    peek(sb, seen.rcx - 2, code, 2);
    CHECK(code[0] == 0x0f && code[1] == 0x05);
    CHECK_EQ(left.rcx, seen.rcx);
    CHECK_EQ(seen.r11 & kept_flags, in->flags & kept_flags);
    if (hard()) CHECK_EQ(seen.flags & kept_flags & ~status, in->flags & kept_flags & ~status);
    else if ((seen.flags ^ in->flags) & kept_flags) note("flags", "not all are kept");
    CHECK_EQ(seen.flags >> 12 & 3, 0); /* IOPL */
    CHECK(ready(sb));
}

static void registers(void) {
    static const uint64_t numbers[] = {0, 1, 39, 334, 0x7fff, 0x8000, 65534, 65535, 65536, 65537, 0x10000027, 1ull << 32, 1ull << 63, UINT64_MAX};
    static const uint64_t flags[] = {0x202, 0x602 /* DF */, 0x40202 /* AC */, 0x4202 /* NT */, 0x200202 /* ID */, 0xad7, 0x244ed7, 0x3202 /* IOPL: not taken */};
    static const uint64_t stacks[] = {0, 8, 1, 0xfff, 0x7fffffffffff, 0x800000000000, 0x8000000000000000, 0xffff800000000000, UINT64_MAX, UINT64_MAX - 7,
                                      GATE, GATE + 0xb0, STUB, HLSNAP__SYS_AT(HLSNAP__SYS_STACK) + 2048, HLSNAP__SYSCALL_GVA};
    snapshot *s;
    sandbox *sb;
    sys_regs in;
    size_t i;
    NEED_KVM;
    sb = start(&s, 1);
    NEED(sb);
    note("SYSCALL", hard() ? "leads to CPL 0" : "stays at CPL 3");
    for (i = 0; i < HLSNAP_COUNT(numbers); i++) in = pattern(numbers[i]), check_kept(sb, &in);
    for (i = 0; i < HLSNAP_COUNT(flags) * 2; i++) in = pattern(2), in.flags = flags[i / 2], in.count = i % 2, check_kept(sb, &in);
    for (i = 0; i < HLSNAP_COUNT(stacks); i++) in = pattern(3), in.rsp = stacks[i], check_kept(sb, &in);
    sound(sb, s);
    hlsnap_sandbox_destroy(sb);
    hlsnap_snapshot_release(s);
}

static void vector_state(void) {
    static uint8_t image[3][SYS_VECTORS];
    hlsnap_value v;
    snapshot *s;
    sandbox *sb;
    NEED_KVM;
    sb = start(&s, 1);
    NEED(sb);
    hlsnap__kvm_dirt(&hlsnap__kvm_facts_published.cpuid, hlsnap__kvm_facts_published.xcr0, image[0]);
    v = hlsnap_bool(hlsnap__kvm_facts_published.xcr0 != 0);
    CHECK_EQ(hlsnap_sandbox_write(sb, at.vectors, image[0], sizeof(image[0]), &last), HLSNAP_OK);
    if (!CHECK_EQ(call(sb, "vectors", &v, 1, NULL), HLSNAP_OK)) printf("# %s\n", last.msg);
    peek(sb, at.vectors, image, sizeof(image));
    CHECK(image[1][32] == 0xa5 && image[1][160] == 0xa5); /* ST0, XMM0: there is something to keep */
    CHECK(memcmp(image[1], image[2], sizeof(image[1])) == 0);
    sound(sb, s);
    hlsnap_sandbox_destroy(sb);
    hlsnap_snapshot_release(s);
}

/* ---- >>debug: TF, the shadow of MOV SS, a data breakpoint at its operand ---- */

/* A debug exception at CPL 3, an odd exit, or none at all; never one of the hypervisor's errors. */
static void debug_check(sandbox *sb, snapshot *s, const char *name, hlsnap_result r) {
    char text[64];
    snprintf(text, sizeof(text), "%s", hlsnap_result_name(r));
    if (r == HLSNAP_ERR_FAULT) snprintf(text, sizeof(text), "vector %u in %s", last.vector, last.region);
    if (r == HLSNAP_ERR_PROTOCOL) snprintf(text, sizeof(text), "%.60s", last.msg);
    note(name, text);
    CHECK(r == HLSNAP_OK || r == HLSNAP_ERR_PROTOCOL || (r == HLSNAP_ERR_FAULT && last.vector == 1));
    sound(sb, s);
}
static void single_steps(void) {
    static const char *const names[] = {"TF before SYSCALL", "TF at SYSCALL", "TF, MOV SS, SYSCALL", "TF, MOV SS of memory, SYSCALL"};
    snapshot *s;
    sandbox *sb;
    sys_regs in, seen, left;
    uint32_t i;
    NEED_KVM;
    sb = start(&s, 1);
    NEED(sb);
    for (i = 0; i < 8; i++) {
        const bool tf = i < 4;
        hlsnap_result r;
        in = pattern(4);
        in.flags = tf ? 0x302 : 0x202;
        in.count = i % 4;
        r = raw(sb, &in, &seen, &left);
        if (!i || (tf && hard())) CHECK(r != HLSNAP_OK);
        if (!tf) CHECK_EQ(r, HLSNAP_OK); /* and software SYSCALL may forget TF */
        debug_check(sb, s, tf ? names[i] : "MOV SS, SYSCALL", r);
    }
    hlsnap_sandbox_destroy(sb);
    hlsnap_snapshot_release(s);
}

static void breakpoint(void) { /* which no guest can set: what a debug exception that MOV SS holds back would do, were it to come */
    struct kvm_debugregs d;
    snapshot *s;
    sandbox *sb;
    sys_regs in, seen, left;
    int i;
    NEED_KVM;
    sb = start(&s, 1);
    NEED(sb);
    for (i = 0; i < 4; i++) {
        hlsnap_result r;
        CHECK_EQ(plain(sb, 39), ANSWER(39));
        memset(&d, 0, sizeof(d));
        d.db[0] = i % 2 ? STUB : at.word;
        d.dr6 = 0xffff0ff0;
        d.dr7 = 0x400 | 1 | (i % 2 ? 0 : 3u << 16 | 3u << 18); /* to execute; or four bytes to read or write */
        CHECK_EQ(hlsnap__ioctl(sb->shell->vcpu, KVM_SET_DEBUGREGS, (uintptr_t)&d), 0);
        in = pattern(5);
        in.count = SYS_SHADOW_MEM;
        r = raw(sb, &in, &seen, &left);
        if (sb->shell && !sb->shell_dead) {
            memset(&d, 0, sizeof(d));
            d.dr6 = 0xffff0ff0, d.dr7 = 0x400;
            CHECK_EQ(hlsnap__ioctl(sb->shell->vcpu, KVM_SET_DEBUGREGS, (uintptr_t)&d), 0);
        }
        if (r == HLSNAP_ERR_PROTOCOL) CHECK(sb->shell_dead);
        debug_check(sb, s, i % 2 ? "breakpoint in the stub" : "breakpoint, MOV SS, SYSCALL", r);
    }
    hlsnap_sandbox_destroy(sb);
    hlsnap_snapshot_release(s);
}

/* The same as the host sees it: an exception whose frame says CPL 0. In SYSCALL's stub it is the guest's doing. */
static void exception_in_the_stub(void) {
    static const struct { uint64_t rip; hlsnap__exit_kind kind; } rows[] = {
        {STUB, HLSNAP__EXIT_PROTOCOL}, {STUB + 26, HLSNAP__EXIT_PROTOCOL}, {STUB - 1, HLSNAP__EXIT_DEAD}, {STUB + 64, HLSNAP__EXIT_DEAD},
        {HLSNAP__SYS_AT(HLSNAP__SYS_STUBS), HLSNAP__EXIT_DEAD}, {0x400000, HLSNAP__EXIT_DEAD}};
    static uint8_t sys[HLSNAP__SYS_PAGING * HLSNAP__PAGE];
    const uint64_t rsp = HLSNAP__SYS_AT(HLSNAP__SYS_STACK) + HLSNAP__IST_TOP - 40;
    hlsnap__kvm_run *run = (hlsnap__kvm_run *)calloc(1, sizeof(*run));
    hlsnap__shell shell;
    hlsnap__exit x;
    size_t i;
    NEED(run);
    memset(&shell, 0, sizeof(shell));
    shell.run = run, shell.sys = sys;
    run->regs.rsp = rsp;
    for (i = 0; i < HLSNAP_COUNT(rows); i++) {
        memset(&x, 0, sizeof(x));
        hlsnap__put64(sys + (rsp - HLSNAP__SYS_GVA), rows[i].rip);
        hlsnap__put64(sys + (rsp - HLSNAP__SYS_GVA) + 8, HLSNAP__SEL_CODE0);
        hlsnap__kvm_fault(&shell, 1, &x);
        CHECK_EQ(x.kind, rows[i].kind);
        CHECK(x.dead && shell.debugged && strstr(x.what, "supervisor area"));
    }
    free(run);
}

/* ---- >>attacks ---- */

typedef struct attack_row { uint32_t kind; uint64_t arg; uint32_t vector, code, other; const char *region; } attack_row;
#define PAGE_AT(page) HLSNAP__SYS_AT(page)
#define ANY 0xffff
static const attack_row attacks[] = {
    {SYS_READ, PAGE_AT(HLSNAP__SYS_TABLES), 14, 5, 0, "supervisor"}, {SYS_READ, PAGE_AT(HLSNAP__SYS_TABLES) + 0xff8, 14, 5, 0, "supervisor"},
    {SYS_READ, PAGE_AT(HLSNAP__SYS_STUBS), 14, 5, 0, "supervisor"}, {SYS_READ, STUB, 14, 5, 0, "supervisor"},
    {SYS_READ, PAGE_AT(HLSNAP__SYS_STACK), 14, 5, 0, "supervisor"}, {SYS_READ, PAGE_AT(HLSNAP__SYS_STACK) + HLSNAP__IST_TOP - 8, 14, 5, 0, "supervisor"},
    {SYS_READ, PAGE_AT(HLSNAP__SYS_PAGING), 14, 4, 0, "supervisor"}, {SYS_READ, PAGE_AT(HLSNAP__SYS_PAGING + 4), 14, 4, 0, "supervisor"},
    {SYS_READ, HLSNAP__SYSCALL_GVA, 14, 4, 0, "supervisor"},
    {SYS_WRITE, PAGE_AT(HLSNAP__SYS_TABLES) + 0x168, 14, 7, 0, "supervisor"}, {SYS_WRITE, PAGE_AT(HLSNAP__SYS_TABLES) + HLSNAP__IDT_OFFSET, 14, 7, 0, "supervisor"},
    {SYS_WRITE, STUB, 14, 7, 0, "supervisor"}, {SYS_WRITE, PAGE_AT(HLSNAP__SYS_STACK) + HLSNAP__IST_TOP - 8, 14, 7, 0, "supervisor"},
    {SYS_WRITE, GATE, 14, 7, 0, "supervisor"}, {SYS_WRITE, GATE + HLSNAP__GATE_SLOT, 14, 7, 0, "supervisor"},
    {SYS_WRITE, GATE + HLSNAP__GATE_SYSRET, 14, 7, 0, "supervisor"}, {SYS_WRITE, GATE + HLSNAP__GATE_SYSCALL, 14, 7, 0, "supervisor"},
    {SYS_WRITE, PAGE_AT(HLSNAP__SYS_XSAVE), 14, 7, 0, "supervisor"}, {SYS_WRITE, PAGE_AT(HLSNAP__SYS_PAGING), 14, 6, 0, "supervisor"},
    {SYS_JUMP, STUB, 14, 0x15, 0, "supervisor"}, {SYS_JUMP, STUB + 13, 14, 0x15, 0, "supervisor"}, {SYS_JUMP, HLSNAP__SYSCALL_GVA, 14, 0x14, 0, "supervisor"},
    {SYS_HLT, 0, 13, 0, 0, "text"}, {SYS_CLI, 0, 13, 0, 0, "text"}, {SYS_IN, 0x20, 13, 0, 0, "text"}, {SYS_IN, 0xe2, 13, 0, 0, "text"},
    {SYS_OUT, 0x20, 13, 0, 0, "text"}, {SYS_OUT, 0x3f, 13, 0, 0, "text"}, {SYS_OUT, 0x21, 13, 0, 0, "text"}, {SYS_OUT, 0xdf, 13, 0, 0, "text"},
    {SYS_OUT, 0xe2, 13, 0, 0, "text"}, {SYS_OUT, 0x3f8, 13, 0, 0, "text"}, {SYS_OUT, 0xffff, 13, 0, 0, "text"}, {SYS_OUT16, 0xdf, 13, 0, 0, "text"},
    {SYS_OUT16, 0xe1, 13, 0, 0, "text"}, {SYS_READ_CR0, 0, 13, 0, 0, "text"}, {SYS_WRITE_CR0, 0, 13, 0, 0, "text"}, {SYS_WRITE_CR3, 0, 13, 0, 0, "text"},
    {SYS_WRITE_CR4, 0, 13, 0, 0, "text"}, {SYS_READ_DR7, 0, 13, 0, 0, "text"}, {SYS_WRITE_DR7, 0, 13, 0, 0, "text"},
    {SYS_RDMSR, 0xc0000082, 13, 0, 0, "text"}, {SYS_WRMSR, 0xc0000082, 13, 0, 0, "text"}, {SYS_WRMSR, 0xc0000080, 13, 0, 0, "text"},
    {SYS_WRMSR, 0xc0000081, 13, 0, 0, "text"}, {SYS_WRMSR, 0xc0000084, 13, 0, 0, "text"}, {SYS_WRMSR, 0xc0000100, 13, 0, 0, "text"},
    {SYS_SYSRET, 0, 13, 0, 6, "text"}, {SYS_SYSEXIT, 0, 13, 0, 6, "text"}, {SYS_SWAPGS, 0, 13, 0, 6, "text"}, {SYS_IRET, 0, 13, ANY, 14, NULL},
    {SYS_LGDT, 0, 13, 0, 0, "text"}, {SYS_LIDT, 0, 13, 0, 0, "text"}, {SYS_LLDT, 0, 13, 0, 0, "text"}, {SYS_LTR, 0, 13, 0, 0, "text"},
    {SYS_CLTS, 0, 13, 0, 0, "text"}, {SYS_INVLPG, 0, 13, 0, 0, "text"}, {SYS_XSETBV, 0, 13, 0, 6, "text"}, {SYS_INVD, 0, 13, 0, 0, "text"},
    {SYS_STAC, 0, 6, 0, 0, "text"}, {SYS_INT80, 0, 13, ANY, 6, "text"}, {SYS_INT1, 0, 13, ANY, 6, "text"}, {SYS_SYSENTER, 0, 13, 0, 6, NULL},
    {SYS_FAR_CALL, 0, 13, ANY, 6, NULL}};

static hlsnap_result attack(sandbox *sb, uint32_t kind, uint64_t arg, bool in_handler) {
    hlsnap_value v[3];
    v[0] = hlsnap_u32(kind), v[1] = hlsnap_u64(arg), v[2] = hlsnap_u32(in_handler);
    return call_limited(sb, "attack", v, 3, 20000000000u);
}

static void nothing_more_is_allowed(void) {
    snapshot *s;
    sandbox *sb;
    size_t i;
    NEED_KVM;
    sb = start(&s, 1);
    NEED(sb);
    for (i = 0; i < HLSNAP_COUNT(attacks) * 2; i++) { /* by the program, behind a system call; in what answers one */
        const attack_row *row = &attacks[i / 2];
        hlsnap_result r;
        bool ok;
        CHECK_EQ(plain(sb, 39), ANSWER(39));
        r = attack(sb, row->kind, row->arg, i % 2);
        ok = CHECK_EQ(r, HLSNAP_ERR_FAULT) & CHECK(last.vector == row->vector || (row->other && last.vector == row->other));
        if (row->other && last.vector == row->other) {
            char name[40];
            snprintf(name, sizeof(name), "attack %u ends in vector", row->kind);
            note(name, last.msg + sizeof("guest fault: vector ") - 1);
        }
        else if (row->code != ANY) ok &= CHECK_EQ(last.error_code, row->code);
        if (row->region) ok &= CHECK_STR(last.region, row->region);
        if (row->vector == 14 && last.vector == 14) ok &= CHECK_EQ(last.cr2, row->arg);
        if (!ok) printf("# attack %u 0x%llx, in the handler %d: %s\n", row->kind, (unsigned long long)row->arg, (int)(i % 2), last.msg);
        CHECK_EQ(hlsnap_sandbox_get_state(sb), HLSNAP_POISONED);
        sound(sb, s);
    }
    for (i = 0; i < 2; i++) CHECK_EQ(attack(sb, SYS_READ, i ? GATE + HLSNAP__GATE_SLOT : GATE, i != 0), HLSNAP_OK); /* no secret */
    sound(sb, s);
    hlsnap_sandbox_destroy(sb);
    hlsnap_snapshot_release(s);
}

/* Into the stub's page, and into the gate's, at every offset. Whatever runs there runs at CPL 3. */
static void jumps(void) {
    uint32_t offset, ends[64] = {0};
    snapshot *s;
    sandbox *sb;
    NEED_KVM;
    sb = start(&s, 1);
    NEED(sb);
    for (offset = 0; offset < 4096; offset += offset < 0x440 ? 1 : 61) {
        if (is_slow && offset > 8 && offset < 0x3f8 && offset % 17) continue;
        CHECK_EQ(attack(sb, SYS_JUMP, PAGE_AT(HLSNAP__SYS_STUBS) + offset, offset % 2), HLSNAP_ERR_FAULT);
        CHECK(last.vector == 14 && last.error_code == 0x15 && last.rip == PAGE_AT(HLSNAP__SYS_STUBS) + offset);
        if (offset % 64 == 0) sound(sb, s);
        else CHECK_EQ(restore(sb, s), HLSNAP_OK);
    }
    for (offset = 0; offset < 4096; offset += offset < 0xc8 ? 1 : 61) {
        const hlsnap_result r = attack(sb, SYS_JUMP, GATE + offset, offset % 2);
        if (!CHECK(r == HLSNAP_ERR_FAULT)) printf("# gate + 0x%x: %s: %s\n", offset, hlsnap_result_name(r), last.msg);
        ends[last.vector % 64]++;
        if (offset >= 0xc8) CHECK_EQ(last.vector, 13); /* HLT */
        sound(sb, s);
    }
    printf("# jumps into the gate: vector 6 %u, 13 %u, 14 %u\n", ends[6], ends[13], ends[14]);
    hlsnap_sandbox_destroy(sb);
    hlsnap_snapshot_release(s);
}

static void last_bytes(void) {
    snapshot *s;
    sandbox *sb;
    sys_regs seen;
    NEED_KVM;
    sb = start(&s, 1);
    NEED(sb);
    CHECK_EQ(at.last_end % 4096, 0);
    CHECK(!hlsnap__layout_at(&sb->memory.layout, at.last_end));
    CHECK_EQ(call(sb, "last", HLSNAP_NO_ARGS, NULL), HLSNAP_ERR_FAULT); /* answered; the return is what fails */
    CHECK(last.vector == 14 && last.error_code == 0x14 && last.rip == at.last_end && last.cr2 == at.last_end);
    peek(sb, at.seen, &seen, sizeof(seen));
    CHECK(seen.count == 1 && seen.rcx == at.last_end && seen.rax == 39);
    sound(sb, s);
    hlsnap_sandbox_destroy(sb);
    hlsnap_snapshot_release(s);
}

/* ---- >>state: bases and selectors ---- */

static void bases(void) {
    static const uint64_t values[] = {0, 1, 0x12345000, 0x7fffffffffff, 0xffff800000000000, UINT64_MAX - 7, GATE, STUB};
    hlsnap_value v[3], out = HLSNAP_ZERO;
    uint64_t got[2];
    snapshot *s;
    sandbox *sb;
    uint32_t i, how;
    NEED_KVM;
    sb = start(&s, 1);
    NEED(sb);
    for (i = 0; i < HLSNAP_COUNT(values) * 2; i++)
        for (how = 0; how < 4; how++) {
            hlsnap_result r;
            if (!(i % 2) && !how) continue;
            v[0] = hlsnap_u32(i % 2), v[1] = hlsnap_u64(values[i / 2]), v[2] = hlsnap_u32(how);
            r = how == 2 ? call_limited(sb, "base_set", v, 3, 2000000) : call(sb, "base_set", v, 3, NULL);
            CHECK_EQ(r, how == 0 ? HLSNAP_OK : how == 1 ? HLSNAP_ERR_PROTOCOL : how == 2 ? HLSNAP_ERR_TIMEOUT : HLSNAP_ERR_FAULT);
            if (how == 3) CHECK_EQ(last.vector, 6); /* UD2: the base could be set */
            if (how == 0) { /* the same tenant's next call */
                CHECK_EQ(call(sb, "bases", HLSNAP_NO_ARGS, &out), HLSNAP_OK);
                memcpy(got, out.bytes, sizeof(got));
                CHECK_EQ(got[1], values[i / 2]);
            }
            CHECK_EQ(restore(sb, s), HLSNAP_OK);
            if (CHECK_EQ(call(sb, "bases", HLSNAP_NO_ARGS, &out), HLSNAP_OK)) {
                memcpy(got, out.bytes, sizeof(got));
                CHECK_EQ(got[0], hlsnap__layout_find(&sb->memory.layout, HLSNAP__IDENTITY)->gva);
                CHECK_EQ(got[1], 0);
            }
            sound(sb, s);
        }
    for (i = 0; i < 2; i++) { /* loaded, kept over a system call, and not the next tenant's */
        uint32_t found[4];
        v[0] = hlsnap_u32(i ? 0 : 0x23);
        if (CHECK_EQ(call(sb, "selectors", v, 1, &out), HLSNAP_OK)) {
            memcpy(found, out.bytes, sizeof(found));
            for (how = 0; how < 3; how++) CHECK(found[how] == v[0].as.u32 || (!hard() && found[how] == 0)); /* software SYSCALL clears them */
            CHECK(found[3] == HLSNAP__SEL_DATA3 || (!hard() && found[3] == 0x2b));                          /* its own user segment */
        }
        sound(sb, s);
    }
    hlsnap_sandbox_destroy(sb);
    hlsnap_snapshot_release(s);
}

/* ---- >>tenants: one vCPU, guests with this entry, with another, and without ---- */

static void other_tenants(void) {
    enum { OWN, OTHER, NONE, N };
    hlsnap_value v[3], out = HLSNAP_ZERO;
    snapshot *s[N];
    sandbox *sb[N];
    int i, k, rounds = is_slow ? 30 : 300;
    NEED_KVM;
    sb[OWN] = start(&s[OWN], 1);
    NEED(sb[OWN]);
    sb[OTHER] = start(&s[OTHER], at.other_entry);
    sb[NONE] = start(&s[NONE], 0);
    for (i = 1; i < N; i++) NEED(sb[i]);
    for (k = 0; k < N; k++) /* one that first ran a guest of each kind */
        for (i = 0; i < rounds; i++) {
            const int to = (int)((unsigned)i * 7u / 3u) % N;
            hlsnap_result r;
            CHECK_EQ(restore(sb[k], s[to]), HLSNAP_OK);
            if (to == OWN) CHECK_EQ(plain(sb[k], 77), ANSWER(77));
            else if (to == OTHER) CHECK_EQ(plain(sb[k], 77), 0x07e4);
            else {
                v[0] = hlsnap_u64(2);
                CHECK_EQ(call(sb[k], "plain", v, 1, &out), HLSNAP_ERR_FAULT);
                CHECK(last.vector == 6 || (last.vector == 14 && !hard()));
                CHECK(strstr(last.msg, "system call attempted: open (2)") != NULL);
                CHECK_EQ(restore(sb[k], s[to]), HLSNAP_OK);
                v[0] = hlsnap_u32(1), v[1] = hlsnap_u64(0x1000), v[2] = hlsnap_u32(0);
                r = call(sb[k], "base_set", v, 3, NULL);
                if (r == HLSNAP_OK) note("WRGSBASE without leave", "no fault");
                else CHECK(r == HLSNAP_ERR_FAULT && last.vector == 6);
                CHECK_EQ(restore(sb[k], s[to]), HLSNAP_OK);
                v[0] = hlsnap_u32(SYS_JUMP), v[1] = hlsnap_u64(GATE + HLSNAP__GATE_SYSCALL), v[2] = hlsnap_u32(0);
                CHECK_EQ(call(sb[k], "attack", v, 3, NULL), HLSNAP_ERR_FAULT); /* the slot leads nowhere */
                CHECK(last.vector == 14 && last.error_code == 0x14 && last.rip == HLSNAP__SYSCALL_GVA);
                CHECK_EQ(restore(sb[k], s[to]), HLSNAP_OK);
                CHECK_EQ(call(sb[k], "where", HLSNAP_NO_ARGS, NULL), HLSNAP_OK);
            }
            if (ready(sb[k])) check_vcpu(sb[k]);
            if (i % 10 == 9) hlsnap_sandbox_retire(sb[k]);
            if (test_bad > 20) break;
        }
    for (i = 0; i < N; i++) {
        hlsnap_sandbox_destroy(sb[i]);
        hlsnap_snapshot_release(s[i]);
    }
}

/* ---- >>probe: where SYSCALL leads is tried once, and what interrupts that is not lost on the guest ---- */

static void *cancels(void *user) {
    hlsnap_interrupt *h = (hlsnap_interrupt *)user;
    int i;
    for (i = 0; i < 2000 && !hlsnap_interrupt_cancel(h); i++) sched_yield();
    return NULL;
}
static void probe_cancelled(sandbox *sb, snapshot *s) {
    const hlsnap_value forever = hlsnap_u64(0);
    const int32_t known = hlsnap__kvm_facts_syscall;
    hlsnap_interrupt *h = hlsnap_sandbox_get_interrupt(sb);
    pthread_t thread;
    int i;
    for (i = 0; i < (is_slow ? 10 : 100); i++) {
        hlsnap_result r;
        hlsnap__kvm_facts_syscall = HLSNAP__KVM_SYSCALL_UNTRIED;
        CHECK_EQ(pthread_create(&thread, NULL, cancels, h), 0);
        r = call_limited(sb, "many", &forever, 1, 10000000000u);
        pthread_join(thread, NULL);
        CHECK(r == HLSNAP_ERR_CANCELLED);
        sound(sb, s);
        CHECK_EQ(hlsnap__kvm_facts_syscall, known);
    }
    hlsnap_interrupt_release(h);
}

static void probe_interrupted(void) {
    const hlsnap_value forever = hlsnap_u64(0), some = hlsnap_u64(10);
    hlsnap_value out = HLSNAP_ZERO;
    sigset_t urgent, old;
    struct timespec zero = {0, 0};
    int32_t known;
    snapshot *s, *pre;
    sandbox *sb;
    int i;
    NEED_KVM;
    sb = start(&s, 1);
    NEED(sb);
    known = hlsnap__kvm_facts_syscall;
    CHECK(known != HLSNAP__KVM_SYSCALL_UNTRIED);
    for (i = 0; i < 20; i++) { /* a time limit that ran out before it began, and some that may fall anywhere */
        hlsnap__kvm_facts_syscall = HLSNAP__KVM_SYSCALL_UNTRIED;
        CHECK_EQ(call_limited(sb, "many", &forever, 1, i ? (uint64_t)i * (is_slow ? 200000 : 10000) : 1), HLSNAP_ERR_TIMEOUT);
        if (i % 2) hlsnap__kvm_facts_syscall = HLSNAP__KVM_SYSCALL_UNTRIED;
        sound(sb, s);
        CHECK_EQ(hlsnap__kvm_facts_syscall, known);
    }
    sigemptyset(&urgent);
    sigaddset(&urgent, SIGURG);
    pthread_sigmask(SIG_BLOCK, &urgent, &old);
    for (i = 0; i < 6; i++) { /* somebody else's signal is pending: the probe's run ends at once, and the call goes on all the same */
        hlsnap__kvm_facts_syscall = HLSNAP__KVM_SYSCALL_UNTRIED;
        pthread_kill(pthread_self(), SIGURG);
        CHECK_EQ(call_limited(sb, "many", &some, 1, 20000000000u), HLSNAP_OK);
        CHECK_EQ(hlsnap__kvm_facts_syscall, known);
        CHECK_EQ(sigtimedwait(&urgent, NULL, &zero), SIGURG);
        if (i % 2) CHECK_EQ(call(sb, "many", &some, 1, &out), HLSNAP_OK);
        sound(sb, s);
        pre = pre_init(1); /* the same in the init of a new one */
        hlsnap__kvm_facts_syscall = HLSNAP__KVM_SYSCALL_UNTRIED;
        pthread_kill(pthread_self(), SIGURG);
        {
            sandbox *fresh = from(pre, 20000000000u);
            CHECK_EQ(sigtimedwait(&urgent, NULL, &zero), SIGURG);
            if (fresh) CHECK_EQ(plain(fresh, 1), ANSWER(1));
            if (fresh) check_vcpu(fresh);
            hlsnap_sandbox_destroy(fresh);
        }
        hlsnap_snapshot_release(pre);
    }
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    probe_cancelled(sb, s);
    hlsnap_sandbox_destroy(sb);
    hlsnap_snapshot_release(s);
}

/* Code of the guest's can neither do the probe's work nor undo it. */
static void probe_is_ours(void) {
    snapshot *s;
    sandbox *sb;
    const uint8_t *gate;
    int i;
    NEED_KVM;
    sb = start(&s, 1);
    NEED(sb);
    for (i = 0; i < 6; i++) { /* each of them in the very call that the probe precedes */
        static const uint64_t to[] = {STUB, HLSNAP__SYSCALL_GVA, GATE + HLSNAP__GATE_SYSRET, GATE + HLSNAP__KVM_OWN_CODE, GATE + HLSNAP__GATE_SYSCALL, 0};
        const int32_t known = hlsnap__kvm_facts_syscall;
        hlsnap__kvm_facts_syscall = HLSNAP__KVM_SYSCALL_UNTRIED;
        CHECK_EQ(attack(sb, SYS_JUMP, to[i], i % 2), HLSNAP_ERR_FAULT);
        CHECK_EQ(hlsnap__kvm_facts_syscall, known);
        gate = hlsnap__memory_sys(&sb->memory) + HLSNAP__SYS_GATE * HLSNAP__PAGE;
        CHECK_EQ(hlsnap__get64(gate + HLSNAP__GATE_SLOT), at.entry);
        CHECK(gate[HLSNAP__KVM_OWN_CODE] == 0xf4 && gate[HLSNAP__KVM_OWN_CODE + 5] == 0xf4);
        sound(sb, s);
    }
    hlsnap_sandbox_destroy(sb);
    hlsnap_snapshot_release(s);
}

/* A call that is stopped among system calls, at CPL 0 as often as not, leaves nothing. */
static void stopped_anywhere(void) {
    const hlsnap_value forever = hlsnap_u64(0);
    snapshot *s;
    sandbox *sb;
    int i;
    NEED_KVM;
    sb = start(&s, 1);
    NEED(sb);
    for (i = 0; i < (is_slow ? 40 : 400); i++) {
        CHECK_EQ(call_limited(sb, "many", &forever, 1, (is_slow ? 2000000u : 200000u) + (uint64_t)i * 1013), HLSNAP_ERR_TIMEOUT);
        sound(sb, s);
    }
    hlsnap_sandbox_destroy(sb);
    hlsnap_snapshot_release(s);
}

/* ---- >>tables: what a CPU finds that goes through the stub, which software KVM never does ---- */

/* The stub up to its SYSRET, and the way back from there, run here: what number and return address become of it. */
static uint64_t through_stub(const uint8_t *stubs, uint64_t number, uint64_t from, uint64_t *back) {
    const size_t n = HLSNAP__STUB_SYSCALL_SIZE - 3;
    uint8_t *code = (uint8_t *)mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    uint64_t rax = number, rcx = from;
    if (!CHECK(code != MAP_FAILED)) return 0;
    memcpy(code, stubs + HLSNAP__STUB_SYSCALL, n);
    code[n] = 0xc3;
    __asm__ volatile("sub $128, %%rsp; call *%2; add $128, %%rsp" : "+a"(rax), "+c"(rcx) : "r"(code) : "memory", "cc");
    munmap(code, 4096);
    *back = rcx;
    return rax;
}

static void tables(void) {
    static const uint64_t numbers[] = {0, 39, 65534, 65535, 65536, 1ull << 32, UINT64_MAX};
    const uint64_t rip = 0x7fffffffeffeull;
    uint8_t *sys = (uint8_t *)calloc(HLSNAP__SYS_PAGES, HLSNAP__PAGE), *idt = sys + HLSNAP__SYS_TABLES * HLSNAP__PAGE + HLSNAP__IDT_OFFSET;
    const uint8_t *stubs = sys + HLSNAP__SYS_STUBS * HLSNAP__PAGE;
    hlsnap__layout none;
    uint64_t to = 0;
    uint32_t v;
    size_t i;
    if (!CHECK(sys != NULL)) return;
    memset(&none, 0, sizeof(none));
    hlsnap__machine_build(sys, &none);
    for (v = 0; v < HLSNAP__NUM_VECTORS; v++) {
        CHECK_EQ(idt[v * 16 + 4], v == 1 || v == 2 || v == 8 || v == 18); /* a stack of the host's: the stub runs on the guest's */
        CHECK_EQ(idt[v * 16 + 5], v == 3 || v == 4 ? 0xee : 0x8e);
    }
    for (i = 0; i < HLSNAP_COUNT(numbers); i++) {
        const uint64_t seen = numbers[i] < 65535 ? numbers[i] : 65535;
        CHECK_EQ(through_stub(stubs, numbers[i], rip, &to), seen << 48 | rip);
        CHECK_EQ(to, GATE + HLSNAP__GATE_SYSRET);
    }
    CHECK(memcmp(stubs + HLSNAP__STUB_SYSCALL + HLSNAP__STUB_SYSCALL_SIZE - 3, "\x48\x0f\x07", 3) == 0); /* SYSRET to 64 bits */
    free(sys);
}

/* ---- >>main ---- */

static const test_row tests[] = {TEST(registers), TEST(vector_state), TEST(single_steps), TEST(breakpoint), TEST(exception_in_the_stub),
    TEST(nothing_more_is_allowed), TEST(jumps), TEST(last_bytes), TEST(bases), TEST(other_tenants), TEST(probe_interrupted), TEST(probe_is_ours),
    TEST(stopped_anywhere), TEST(tables)};

int main(int argc, char **argv) {
    const char *dir = getenv("GUEST_DIR"), *slow = getenv("SVM");
    setvbuf(stdout, NULL, _IOLBF, 0);
    snprintf(guest_file, sizeof(guest_file), "%s/guest_syscall.elf", dir ? dir : ".");
    is_slow = (slow && *slow && *slow != '0') || getenv("VMX");
    return TEST_MAIN(tests, argc, argv);
}

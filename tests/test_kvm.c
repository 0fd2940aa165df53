/* test_kvm.c - everything that needs /dev/kvm: calls, faults, ports, reset, cancel, time limits, signals, threads.
   cc: cc -std=gnu11 -O2 -I.. test_kvm.c -o test_kvm          (-lpthread where the C library wants it)
   run: GUEST_DIR=... ./test_kvm [NAME]                        guest_kvm.elf and, if there, guest_kvm_cpp.elf,
                                                               guest_kvm_syscall.elf and guest_kvm_libc.elf lie in GUEST_DIR
   LONG=1: 100,000 operations of the reset proof; OPS=n: that many; SEED=n: the same run again; SVM=1: slow machine, no timing
   is judged. What differs between software KVM (kvm-pvm) and hardware is accepted either way and noted ("# note: ..."). */
#define HLSNAP_IMPLEMENTATION
#include "hlsnap.h"
#include "hlsnap_kvm.h"
#include "guest_kvm.h"
#include "test.h"
#include <linux/kvm.h>
#include <pthread.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <sys/wait.h>

typedef hlsnap_sandbox sandbox;
typedef hlsnap_snapshot snapshot;

/* ---- >>bench: what all tests stand on ---- */

static const hlsnap_hypervisor *hv;    /* in use: hlsnap_kvm() or a copy with quirks */
static bool is_slow;                   /* SVM=1 */
static uint64_t seed;
static char guest_file[512], cpp_file[512], syscall_file[512], libc_file[512];

static uint64_t env_number(const char *name, uint64_t otherwise) {
    const char *s = getenv(name);
    return s && *s ? strtoull(s, NULL, 0) : otherwise;
}

static uint64_t rnd_state = 1;
static uint64_t rnd(void) {
    uint64_t z = rnd_state += 0x9e3779b97f4a7c15ull;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ z >> 27) * 0x94d049bb133111ebull;
    return z ^ z >> 31;
}
static uint64_t below(uint64_t n) { return rnd() % n; }

static uint64_t now(void) { return hlsnap__now_ns(); }
static void nap_us(uint64_t us) {
    struct timespec t;
    t.tv_sec = (time_t)(us / 1000000);
    t.tv_nsec = (long)(us % 1000000 * 1000);
    nanosleep(&t, NULL);
}
static void spin_ns(uint64_t ns) {
    const uint64_t end = now() + ns;
    while (now() < end) { }
}

static hlsnap_result host_echo(hlsnap_call *call, void *user) {
    (void)user;
    return hlsnap_call_return(call, hlsnap_call_arg(call, 0));
}
static hlsnap_result host_args32(hlsnap_call *call, void *user) {
    uint64_t h = 0;
    size_t i;
    (void)user;
    for (i = 0; i < HLSNAP_MAX_ARGS; i++) h = h * 31 + hlsnap_call_arg(call, i).as.u64;
    return hlsnap_call_return(call, hlsnap_u64(h));
}
static hlsnap_result host_fails(hlsnap_call *call, void *user) {
    (void)user;
    return hlsnap_call_fail(call, 77, "as asked");
}
typedef struct hook { void (*fn)(void *); void *user; } hook;
static hlsnap_result host_void(hlsnap_call *call, void *user) { /* user: a hook, or NULL */
    const hook *h = (const hook *)user;
    (void)call;
    if (h && h->fn) h->fn(h->user);
    return HLSNAP_OK;
}

#define U64x8 "u64,u64,u64,u64,u64,u64,u64,u64"
#define NUM_FUNCTIONS 12
static const hlsnap_function host_functions[NUM_FUNCTIONS] = {
    {"host_void", "void()", host_void, NULL}, {"host_bool", "bool(bool)", host_echo, NULL}, {"host_i32", "i32(i32)", host_echo, NULL},
    {"host_u32", "u32(u32)", host_echo, NULL}, {"host_i64", "i64(i64)", host_echo, NULL}, {"host_u64", "u64(u64)", host_echo, NULL},
    {"host_f32", "f32(f32)", host_echo, NULL}, {"host_f64", "f64(f64)", host_echo, NULL}, {"host_str", "str(str)", host_echo, NULL},
    {"host_bytes", "bytes(bytes)", host_echo, NULL}, {"host_args32", "u64(" U64x8 "," U64x8 "," U64x8 "," U64x8 ")", host_args32, NULL},
    {"host_fails", "void()", host_fails, NULL}};

typedef struct options { uint64_t heap, stack, mailbox, timeout_ns; hook *hook; hlsnap_log_fn log; void *log_user; int log_level, cancel_signal; bool cpp, system_calls; const hlsnap_map *maps; size_t num_maps; hlsnap_prefault prefault; bool huge, images, libc; } options;

static void desc_of(const options *o, hlsnap_function *functions, hlsnap_sandbox_desc *d) {
    static const hlsnap_sandbox_desc zero = HLSNAP_ZERO;
    *d = zero;
    memcpy(functions, host_functions, sizeof(host_functions));
    functions[0].user = o->hook;
    d->hypervisor = hv;
    d->functions = functions;
    d->num_functions = NUM_FUNCTIONS;
    d->timeout_ns = o->timeout_ns;
    d->log = o->log;
    d->log_user = o->log_user;
    d->log_level = o->log_level;
    d->cancel_signal = o->cancel_signal;
    d->maps = o->maps;
    d->num_maps = o->num_maps;
    d->huge_pages = o->huge;
}

static const options plain;
static const options small = {256 << 10, 32 << 10, 16 << 10, 0, NULL, NULL, NULL, 0, 0, false, false, NULL, 0, HLSNAP_PREFAULT_OFF, false, false, false};

static hlsnap_result load(const options *o, snapshot **out) {
    hlsnap_guest_desc g = HLSNAP_ZERO;
    hlsnap_error err;
    hlsnap_result r;
    g.heap_size = o->heap;
    g.stack_size = o->stack;
    g.mailbox_size = o->mailbox;
    g.prefault = o->prefault;
    g.path = o->cpp ? cpp_file : o->system_calls ? syscall_file : o->libc ? libc_file : guest_file;
    r = hlsnap_snapshot_from_guest(&g, out, &err);
    if (r) printf("# %s\n", err.msg);
    return r;
}

static sandbox *from(snapshot *s, const options *o) {
    hlsnap_function functions[NUM_FUNCTIONS];
    hlsnap_sandbox_desc d;
    hlsnap_error err;
    sandbox *sb = NULL;
    desc_of(o, functions, &d);
    if (hlsnap_sandbox_create_from(s, &d, &sb, &err)) {
        printf("# %s: %s\n", hlsnap_result_name(err.code), err.msg);
        test_bad++;
    }
    return sb;
}

/* A sandbox of the C guest that has run its init. */
static sandbox *start(const options *o) {
    snapshot *s = NULL;
    sandbox *sb;
    if (load(o, &s)) {
        test_bad++;
        return NULL;
    }
    sb = from(s, o);
    hlsnap_snapshot_release(s);
    return sb;
}

static snapshot *take(sandbox *sb) {
    snapshot *s = NULL;
    hlsnap_error err;
    if (hlsnap_sandbox_snapshot(sb, &s, &err)) printf("# %s\n", err.msg);
    CHECK(s != NULL);
    return s;
}

static hlsnap_value void_value(void) {
    hlsnap_value v;
    memset(&v, 0, sizeof(v));
    return v;
}
#define VOID_VALUE void_value()

/* One call; the error, if any, goes to last. */
static hlsnap_error last;
static hlsnap_result call(sandbox *sb, const char *name, const hlsnap_value *args, size_t num, hlsnap_value *out) {
    last.code = HLSNAP_OK;
    last.msg[0] = 0;
    return hlsnap_sandbox_call(sb, name, args, num, out, &last);
}
static uint64_t call_u64(sandbox *sb, const char *name) {
    hlsnap_value v = VOID_VALUE;
    if (call(sb, name, HLSNAP_NO_ARGS, &v)) return UINT64_MAX;
    return v.as.u64;
}
static hlsnap_result call_limited(sandbox *sb, const char *name, const hlsnap_value *args, size_t num, uint64_t ns) {
    hlsnap_invocation one = HLSNAP_ZERO;
    if (hlsnap_sandbox_find(sb, name, NULL, &one.target, &last)) return last.code;
    one.args = args;
    one.num_args = num;
    one.timeout_ns = ns;
    return hlsnap_sandbox_invoke(sb, &one, 1, NULL, NULL, &last);
}
static hlsnap_result restore(sandbox *sb, snapshot *s) {
    const hlsnap_result r = hlsnap_sandbox_restore(sb, s, &last);
    if (r) printf("# restore: %s\n", last.msg);
    return r;
}
static bool addresses_of(sandbox *sb, guest_addresses *a) {
    hlsnap_value v;
    if (call(sb, "addresses", HLSNAP_NO_ARGS, &v) || v.size != sizeof(*a)) return false;
    memcpy(a, v.bytes, sizeof(*a));
    return true;
}
static uint64_t gva_of(const sandbox *sb, uint32_t kind) { return hlsnap__layout_find(&sb->memory.layout, kind)->gva; }
static bool poisoned(const sandbox *sb) { return hlsnap_sandbox_get_state(sb) == HLSNAP_POISONED; }
static bool ready(const sandbox *sb) { return hlsnap_sandbox_get_state(sb) == HLSNAP_READY; }

static const char *kvm_missing(void) {
    static hlsnap_error err;
    if (hlsnap_kvm_probe(&err)) return err.msg;
    if (access(guest_file, R_OK)) return "no guest_kvm.elf in GUEST_DIR";
    return NULL;
}
#define NEED_KVM do { const char *missing_ = kvm_missing(); if (missing_) SKIP(missing_); } while (0)
#define NEED(sb) do { if (!CHECK((sb) != NULL)) return; } while (0)

/* Each thing that differs between kinds of KVM is said once. */
static void note(const char *what, const char *seen) {
    static char said[64][64];
    static unsigned n;
    unsigned i;
    char line[64];
    snprintf(line, sizeof(line), "%.30s: %.30s", what, seen);
    for (i = 0; i < n; i++)
        if (strcmp(said[i], line) == 0) return;
    if (n < 64) memcpy(said[n++], line, sizeof(line));
    printf("# note: %s\n", line);
}

/* ---- >>numbers: hlsnap_kvm.h carries its own ---- */

#define SAME(ours, theirs) CHECK_EQ(ours, theirs)
static void abi_numbers(void) {
    SAME(HLSNAP__KVM_GET_API_VERSION, KVM_GET_API_VERSION);
    SAME(HLSNAP__KVM_CREATE_VM, KVM_CREATE_VM);
    SAME(HLSNAP__KVM_CHECK_EXTENSION, KVM_CHECK_EXTENSION);
    SAME(HLSNAP__KVM_GET_VCPU_MMAP_SIZE, KVM_GET_VCPU_MMAP_SIZE);
    SAME(HLSNAP__KVM_GET_SUPPORTED_CPUID, KVM_GET_SUPPORTED_CPUID);
    SAME(HLSNAP__KVM_CREATE_VCPU, KVM_CREATE_VCPU);
    SAME(HLSNAP__KVM_SET_USER_MEMORY_REGION, KVM_SET_USER_MEMORY_REGION);
    SAME(HLSNAP__KVM_RUN, KVM_RUN);
    SAME(HLSNAP__KVM_SET_MSRS, KVM_SET_MSRS);
    SAME(HLSNAP__KVM_SET_SIGNAL_MASK, KVM_SET_SIGNAL_MASK);
    SAME(HLSNAP__KVM_SET_CPUID2, KVM_SET_CPUID2);
    SAME(HLSNAP__KVM_SET_DEBUGREGS, KVM_SET_DEBUGREGS);
    SAME(HLSNAP__KVM_GET_XSAVE, KVM_GET_XSAVE);
    SAME(HLSNAP__KVM_VALID_SHADOW, KVM_VCPUEVENT_VALID_SHADOW);
    SAME(HLSNAP__KVM_SET_XSAVE, KVM_SET_XSAVE);
    SAME(HLSNAP__KVM_SET_XCRS, KVM_SET_XCRS);
    SAME(HLSNAP__KVM_CAP_SYNC_REGS, KVM_CAP_SYNC_REGS);
    SAME(HLSNAP__KVM_CAP_IMMEDIATE_EXIT, KVM_CAP_IMMEDIATE_EXIT);
    SAME(HLSNAP__KVM_EXIT_IO, KVM_EXIT_IO);
    SAME(HLSNAP__KVM_EXIT_SHUTDOWN, KVM_EXIT_SHUTDOWN);
    SAME(HLSNAP__KVM_EXIT_FAIL_ENTRY, KVM_EXIT_FAIL_ENTRY);
    SAME(HLSNAP__KVM_EXIT_INTERNAL_ERROR, KVM_EXIT_INTERNAL_ERROR);
    SAME(HLSNAP__KVM_SYNC_REGS, KVM_SYNC_X86_REGS);
    SAME(HLSNAP__KVM_SYNC_SREGS, KVM_SYNC_X86_SREGS);
    SAME(HLSNAP__KVM_SYNC_EVENTS, KVM_SYNC_X86_EVENTS);
    SAME(1, KVM_EXIT_IO_OUT);
}

#define AT(ours, a, theirs, b) CHECK_EQ(offsetof(ours, a), offsetof(theirs, b))
static void abi_layouts(void) {
    CHECK_EQ(sizeof(hlsnap__kvm_regs), sizeof(struct kvm_regs));
    CHECK_EQ(sizeof(hlsnap__kvm_segment), sizeof(struct kvm_segment));
    CHECK_EQ(sizeof(hlsnap__kvm_dtable), sizeof(struct kvm_dtable));
    CHECK_EQ(sizeof(hlsnap__kvm_sregs), sizeof(struct kvm_sregs));
    CHECK_EQ(sizeof(hlsnap__kvm_events), sizeof(struct kvm_vcpu_events));
    CHECK_EQ(sizeof(hlsnap__kvm_memory), sizeof(struct kvm_userspace_memory_region));
    CHECK_EQ(sizeof(hlsnap__kvm_cpuid_entry), sizeof(struct kvm_cpuid_entry2));
    CHECK_EQ(sizeof(hlsnap__kvm_xcrs), sizeof(struct kvm_xcrs));
    CHECK_EQ(sizeof(hlsnap__kvm_msr), sizeof(struct kvm_msr_entry));
    AT(hlsnap__kvm_regs, rsi, struct kvm_regs, rsi);
    AT(hlsnap__kvm_regs, rsp, struct kvm_regs, rsp);
    AT(hlsnap__kvm_regs, r8, struct kvm_regs, r8);
    AT(hlsnap__kvm_regs, r15, struct kvm_regs, r15);
    AT(hlsnap__kvm_regs, rip, struct kvm_regs, rip);
    AT(hlsnap__kvm_regs, rflags, struct kvm_regs, rflags);
    AT(hlsnap__kvm_segment, type, struct kvm_segment, type);
    AT(hlsnap__kvm_segment, l, struct kvm_segment, l);
    AT(hlsnap__kvm_segment, unusable, struct kvm_segment, unusable);
    AT(hlsnap__kvm_sregs, ss, struct kvm_sregs, ss);
    AT(hlsnap__kvm_sregs, ldt, struct kvm_sregs, ldt);
    AT(hlsnap__kvm_sregs, idt, struct kvm_sregs, idt);
    AT(hlsnap__kvm_sregs, cr0, struct kvm_sregs, cr0);
    AT(hlsnap__kvm_sregs, efer, struct kvm_sregs, efer);
    AT(hlsnap__kvm_sregs, apic_base, struct kvm_sregs, apic_base);
    AT(hlsnap__kvm_run, immediate_exit, struct kvm_run, immediate_exit);
    AT(hlsnap__kvm_run, exit_reason, struct kvm_run, exit_reason);
    AT(hlsnap__kvm_run, exit.io.direction, struct kvm_run, io.direction);
    AT(hlsnap__kvm_run, exit.io.size, struct kvm_run, io.size);
    AT(hlsnap__kvm_run, exit.io.port, struct kvm_run, io.port);
    AT(hlsnap__kvm_run, exit.io.count, struct kvm_run, io.count);
    AT(hlsnap__kvm_run, exit.internal.suberror, struct kvm_run, internal.suberror);
    AT(hlsnap__kvm_run, exit.fail_entry.hardware_entry_failure_reason, struct kvm_run, fail_entry.hardware_entry_failure_reason);
    AT(hlsnap__kvm_run, valid_regs, struct kvm_run, kvm_valid_regs);
    AT(hlsnap__kvm_run, dirty_regs, struct kvm_run, kvm_dirty_regs);
    AT(hlsnap__kvm_run, regs, struct kvm_run, s.regs.regs);
    AT(hlsnap__kvm_run, sregs, struct kvm_run, s.regs.sregs);
    AT(hlsnap__kvm_run, events, struct kvm_run, s.regs.events);
    AT(hlsnap__kvm_events, shadow, struct kvm_vcpu_events, interrupt.shadow);
    AT(hlsnap__kvm_events, flags, struct kvm_vcpu_events, flags);
    AT(hlsnap__kvm_debugregs, dr6, struct kvm_debugregs, dr6);
    AT(hlsnap__kvm_debugregs, dr7, struct kvm_debugregs, dr7);
    CHECK_EQ(sizeof(hlsnap__kvm_debugregs), sizeof(struct kvm_debugregs));
    AT(hlsnap__kvm_memory, gpa, struct kvm_userspace_memory_region, guest_phys_addr);
    AT(hlsnap__kvm_memory, size, struct kvm_userspace_memory_region, memory_size);
    AT(hlsnap__kvm_memory, hva, struct kvm_userspace_memory_region, userspace_addr);
    AT(hlsnap__kvm_cpuid_entry, edx, struct kvm_cpuid_entry2, edx);
    AT(hlsnap__kvm_cpuid, rows, struct kvm_cpuid2, entries);
    AT(hlsnap__kvm_xcrs, rows, struct kvm_xcrs, xcrs);
    AT(hlsnap__kvm_mask, bits, struct kvm_signal_mask, sigset);
    AT(hlsnap__kvm_msrs, rows, struct kvm_msrs, entries);
    AT(hlsnap__kvm_msr, value, struct kvm_msr_entry, data);
    AT(hlsnap__kvm_sigevent, signo, struct sigevent, sigev_signo);
    AT(hlsnap__kvm_sigevent, notify, struct sigevent, sigev_notify);
    CHECK_EQ(offsetof(hlsnap__kvm_sigevent, tid), 16);
}

/* ---- >>types ---- */

static bool same_value(const hlsnap_value *a, const hlsnap_value *b) {
    if (a->type != b->type || a->size != b->size) return false;
    if (a->type == HLSNAP_STR) return a->str && memcmp(a->str, b->str, a->size + 1) == 0;
    if (a->type == HLSNAP_BYTES) return a->bytes && memcmp(a->bytes, b->bytes, a->size) == 0;
    if (a->type == HLSNAP_BOOL) return a->as.b == b->as.b;
    return a->type == HLSNAP_F32 || a->type == HLSNAP_I32 || a->type == HLSNAP_U32 ? a->as.u32 == b->as.u32 : a->as.u64 == b->as.u64;
}

static void round_trip(sandbox *sb, const char *type, hlsnap_value v) { /* through the guest, and on through the host */
    static const char *const ways[] = {"echo", "pass"};
    char name[32];
    int i;
    for (i = 0; i < 2; i++) {
        hlsnap_value out = VOID_VALUE;
        snprintf(name, sizeof(name), "%s_%s", ways[i], type);
        if (CHECK_EQ(call(sb, name, &v, 1, &out), HLSNAP_OK) && CHECK(same_value(&out, &v))) continue;
        printf("# %s %s\n", name, last.msg);
    }
}

static void types_in(sandbox *sb) {
    static const uint64_t bits[] = {0, 1, 0x7fffffff, 0x80000000, 0xffffffff, 0x7fffffffffffffff, 0x8000000000000000, 0xffffffffffffffff,
                                    0x3ff0000000000000, 0x7ff0000000000000, 0xfff0000000000000, 0x7ff8000000000001, 0x7f800000, 0x7fc00001, 0x00000001};
    static uint8_t big[40000];
    size_t i;
    for (i = 0; i < HLSNAP_COUNT(bits); i++) {
        hlsnap_value f = hlsnap_f32(0), d = hlsnap_f64(0);
        f.as.u32 = (uint32_t)bits[i];
        d.as.u64 = bits[i];
        round_trip(sb, "bool", hlsnap_bool(bits[i] & 1));
        round_trip(sb, "i32", hlsnap_i32((int32_t)bits[i]));
        round_trip(sb, "u32", hlsnap_u32((uint32_t)bits[i]));
        round_trip(sb, "i64", hlsnap_i64((int64_t)bits[i]));
        round_trip(sb, "u64", hlsnap_u64(bits[i]));
        round_trip(sb, "f32", f);
        round_trip(sb, "f64", d);
    }
    for (i = 0; i < sizeof(big); i++) big[i] = (uint8_t)(i * 7 + i / 256);
    for (i = 0; i <= 20; i++) round_trip(sb, "bytes", hlsnap_bytes(big, i));
    round_trip(sb, "bytes", hlsnap_bytes(big, 10000));
    round_trip(sb, "str", hlsnap_str(""));
    round_trip(sb, "str", hlsnap_str(NULL));
    round_trip(sb, "str", hlsnap_str("gr\xc3\xbc\xc3\x9f\x01\x7f\xff"));
    for (i = 0; i < 9000; i++) big[i] = 'x';
    big[9000] = 0;
    round_trip(sb, "str", hlsnap_str((const char *)big));
}

static void types(void) {
    sandbox *sb;
    NEED_KVM;
    sb = start(&plain);
    NEED(sb);
    types_in(sb);
    hlsnap_sandbox_destroy(sb);
}

/* Messages that the mailbox has no room for travel in the guest's memory, every way there is. */
static hlsnap_result echo_large(sandbox *sb, const char *name, const uint8_t *data, size_t n, bool is_str, bool right) {
    hlsnap_value v = hlsnap_bytes(data, n), out = VOID_VALUE;
    hlsnap_result r;
    if (is_str) {
        v = hlsnap_str("");
        v.str = (const char *)data;
        v.size = n;
    }
    r = call(sb, name, &v, 1, &out);
    if (right && !CHECK_EQ(r, HLSNAP_OK)) printf("# %s of %zu: %s\n", name, n, last.msg);
    if (!r) CHECK(out.size == n && (!n || memcmp(is_str ? (const uint8_t *)out.str : out.bytes, data, n) == 0));
    if (!r && is_str) CHECK_EQ(out.str[n], 0);
    CHECK(ready(sb));
    return r;
}

static void large_messages(void) {
    static const char *const names[] = {"echo_bytes", "pass_bytes", "echo_str", "pass_str"};
    static const size_t sizes[] = {30000, 31300, 31330, 31360, 31368, 31400, 31663, 31664, 31672, 32640, 32700, 33000, 65535, 65536, 100000, 3u << 20};
    const size_t most = is_slow ? 4u << 20 : 20u << 20;
    const options room = {64u << 20, 0, 0, 0, NULL, NULL, NULL, 0, 0, false, false, NULL, 0, HLSNAP_PREFAULT_OFF, false, false, false};
    uint8_t *big = (uint8_t *)malloc(most + 1);
    hlsnap_stats before, after;
    hlsnap_value v, out = VOID_VALUE;
    snapshot *s;
    sandbox *sb;
    size_t i, k;
    NEED_KVM;
    sb = start(&room); /* 64 KiB of mailbox: 32 KiB a half, some of it kept free */
    NEED(sb);
    for (i = 0; i <= most; i++) big[i] = (uint8_t)(1 + (i * 13 + i / 4096) % 255);
    s = take(sb);
    CHECK_EQ(call(sb, "nop", HLSNAP_NO_ARGS, NULL), HLSNAP_OK);
    hlsnap_sandbox_get_stats(sb, &before);
    for (k = 0; k < 4; k++)
        for (i = 0; i < HLSNAP_COUNT(sizes); i++) echo_large(sb, names[k], big, sizes[i], k >= 2, true);
    for (k = 0; k < 4; k++) echo_large(sb, names[k], big, most, k >= 2, true);
    v = hlsnap_u32((uint32_t)most); /* built in place */
    CHECK_EQ(call(sb, "reserved", &v, 1, &out), HLSNAP_OK);
    CHECK_EQ(out.size, most - most / 4);
    for (i = 0; i < out.size && out.bytes[i] == (uint8_t)(i * 31);) i++;
    CHECK_EQ(i, out.size);
    CHECK_EQ(call(sb, "nop", HLSNAP_NO_ARGS, NULL), HLSNAP_OK);
    hlsnap_sandbox_get_stats(sb, &after);
    CHECK_EQ(after.heap_used, before.heap_used); /* nothing of them stays there */
    CHECK_EQ(restore(sb, s), HLSNAP_OK);
    echo_large(sb, "pass_bytes", big, most, false, true);
    CHECK_EQ(restore(sb, s), HLSNAP_OK);
    hlsnap_snapshot_release(s);
    hlsnap_sandbox_destroy(sb);

    sb = start(&plain); /* 1 MiB of heap */
    NEED(sb);
    for (k = 0; k < 4; k++)
        for (i = 1u << 18; i < 1u << 21; i += 1u << 17) {
            const hlsnap_result r = echo_large(sb, names[k], big, i, k >= 2, false);
            CHECK(r == HLSNAP_OK ? i < 1u << 20 : i > 1u << 18);
            if (r && !CHECK(r == HLSNAP_ERR_LIMIT || (r == HLSNAP_ERR_FUNCTION && k % 2))) printf("# %s of %zu: %s\n", names[k], i, last.msg);
            if (r == HLSNAP_ERR_LIMIT) CHECK(strstr(last.msg, "heap_size=1048576") != NULL);
        }
    hlsnap_sandbox_destroy(sb);
    free(big);
}

static void arguments(void) {
    hlsnap_value v[HLSNAP_MAX_ARGS + 1], out = VOID_VALUE, mixed[9];
    uint64_t h = 0, first = 0xfedcba9876543210ull;
    sandbox *sb;
    uint32_t i;
    NEED_KVM;
    sb = start(&plain);
    NEED(sb);
    for (i = 0; i < HLSNAP_MAX_ARGS; i++) v[i] = hlsnap_u64(first + i), h = h * 31 + first + i;
    v[HLSNAP_MAX_ARGS] = v[0];
    CHECK_EQ(call(sb, "args32", v, 32, &out), HLSNAP_OK);
    CHECK_EQ(out.as.u64, h);
    CHECK_EQ(call(sb, "host32", v, 1, &out), HLSNAP_OK);
    CHECK_EQ(out.as.u64, h);
    CHECK_EQ(call(sb, "args32", v, 31, &out), HLSNAP_ERR_SIGNATURE);
    CHECK_EQ(call(sb, "args32", v, 33, &out), HLSNAP_ERR_SIGNATURE);
    v[5] = hlsnap_i64(1);
    CHECK_EQ(call(sb, "args32", v, 32, &out), HLSNAP_ERR_SIGNATURE);
    CHECK_EQ(call(sb, "no_such", v, 0, &out), HLSNAP_ERR_NOT_FOUND);
    mixed[0] = hlsnap_bool(true), mixed[1] = hlsnap_i32(INT32_MIN), mixed[2] = hlsnap_u32(UINT32_MAX), mixed[3] = hlsnap_i64(INT64_MIN);
    mixed[4] = hlsnap_u64(UINT64_MAX), mixed[5] = hlsnap_f32(1.5f), mixed[6] = hlsnap_f64(0.1), mixed[7] = hlsnap_str("s"), mixed[8] = hlsnap_bytes("\1\2\3", 3);
    if (CHECK_EQ(call(sb, "mixed", mixed, 9, &out), HLSNAP_OK))
        CHECK_STR(out.str, "1 -2147483648 4294967295 -9223372036854775808 18446744073709551615 1.5 0.10000000000000001 [s] 3 03");
    CHECK(ready(sb));
    hlsnap_sandbox_destroy(sb);
}

static void host_calls(void) {
    hlsnap_value v = hlsnap_i32(100), out = VOID_VALUE, a[2];
    hlsnap_stats st;
    sandbox *sb;
    NEED_KVM;
    sb = start(&plain);
    NEED(sb);
    CHECK_EQ(call(sb, "host_loop", &v, 1, &out), HLSNAP_OK);
    CHECK_EQ(out.as.i32, 4950);
    hlsnap_sandbox_get_stats(sb, &st);
    CHECK_EQ(st.exits, 102); /* init, 100 host calls, return */
    v = hlsnap_str("host_fails");
    CHECK_EQ(call(sb, "host_error", &v, 1, &out), HLSNAP_OK);
    CHECK_EQ(out.as.i32, HLSNAP_ERR_FUNCTION * 1000 + 77);
    v = hlsnap_str("no_such");
    CHECK_EQ(call(sb, "host_error", &v, 1, &out), HLSNAP_OK);
    CHECK_EQ(out.as.i32, HLSNAP_ERR_NOT_FOUND * 1000);
    v = hlsnap_str("host_i32");
    CHECK_EQ(call(sb, "host_error", &v, 1, &out), HLSNAP_OK);
    CHECK_EQ(out.as.i32, HLSNAP_ERR_SIGNATURE * 1000);
    a[0] = hlsnap_i32(-5), a[1] = hlsnap_str("why");
    CHECK_EQ(call(sb, "fail", a, 2, &out), HLSNAP_ERR_FUNCTION);
    CHECK_EQ(last.user_code, -5);
    CHECK(ready(sb));
    CHECK_EQ(call(sb, "host_void", HLSNAP_NO_ARGS, &out), HLSNAP_OK);
    CHECK_EQ(out.type, HLSNAP_VOID);
    hlsnap_sandbox_destroy(sb);
}

/* Handles and batches. */
static void batches(void) {
    enum { N = 500 };
    static hlsnap_invocation calls[N];
    static hlsnap_value args[N], outs[N], fail[2];
    hlsnap_export echo, count, strs, failing;
    hlsnap_stats before, after;
    size_t i, done = 9;
    sandbox *sb, *other;
    NEED_KVM;
    sb = start(&plain);
    other = start(&small);
    NEED(sb && other ? sb : NULL);
    CHECK_EQ(hlsnap_sandbox_find(sb, "echo_i32", "i32(i32)", &echo, NULL), HLSNAP_OK);
    CHECK_EQ(hlsnap_sandbox_find(sb, "echo_i32", "i32(u32)", &count, NULL), HLSNAP_ERR_SIGNATURE);
    CHECK_EQ(hlsnap_sandbox_find(sb, "count", "u64()", &count, NULL), HLSNAP_OK);
    CHECK_EQ(hlsnap_sandbox_find(sb, "echo_str", NULL, &strs, NULL), HLSNAP_OK);
    CHECK_EQ(hlsnap_sandbox_find(sb, "fail", NULL, &failing, NULL), HLSNAP_OK);
    for (i = 0; i < N; i++) {
        args[i] = hlsnap_i32((int32_t)i);
        calls[i].target = i % 2 ? count : echo;
        calls[i].args = i % 2 ? NULL : &args[i];
        calls[i].num_args = i % 2 ? 0 : 1;
    }
    hlsnap_sandbox_get_stats(sb, &before);
    CHECK_EQ(hlsnap_sandbox_invoke(sb, calls, N, outs, &done, &last), HLSNAP_OK);
    hlsnap_sandbox_get_stats(sb, &after);
    CHECK_EQ(done, N);
    CHECK_EQ(after.calls - before.calls, N);
    CHECK_EQ(after.exits - before.exits, 1);
    for (i = 0; i < N; i++) CHECK_EQ(outs[i].as.u64, i % 2 ? 7 + i / 2 : i);
    args[1] = hlsnap_str("a string"), calls[1].target = strs, calls[1].args = &args[1], calls[1].num_args = 1;
    fail[0] = hlsnap_i32(3), fail[1] = hlsnap_str(""), calls[20].target = failing, calls[20].args = fail, calls[20].num_args = 2;
    CHECK_EQ(hlsnap_sandbox_invoke(sb, calls, N, outs, &done, &last), HLSNAP_ERR_FUNCTION);
    CHECK_EQ(done, 20);
    CHECK_STR(outs[1].str, "a string");
    CHECK_EQ(outs[19].as.u64, 7 + 250 + 8); /* one count fewer than before: call 1 is a string now */
    CHECK(ready(sb));
    CHECK_EQ(hlsnap_sandbox_invoke(sb, calls, 0, NULL, &done, &last), HLSNAP_OK);
    calls[20].num_args = 1; /* all are checked before the first runs */
    CHECK_EQ(hlsnap_sandbox_invoke(sb, calls, N, outs, &done, &last), HLSNAP_ERR_SIGNATURE);
    CHECK_EQ(done, 0);
    calls[0].target.id ^= 1ull << 40;
    CHECK_EQ(hlsnap_sandbox_invoke(sb, calls, 1, outs, &done, &last), HLSNAP_ERR_NOT_FOUND);
    calls[0].target = calls[2].target; /* the same guest in another layout */
    CHECK_EQ(hlsnap_sandbox_invoke(other, calls, 1, outs, &done, &last), HLSNAP_OK);
    hlsnap_sandbox_destroy(sb);
    hlsnap_sandbox_destroy(other);
}

static void reserved(void) {
    static const uint32_t sizes[] = {0, 3, 4, 100, 20000};
    hlsnap_value out, n;
    const void *p;
    sandbox *sb;
    size_t i, k;
    NEED_KVM;
    sb = start(&plain);
    NEED(sb);
    for (i = 0; i < HLSNAP_COUNT(sizes); i++) {
        n = hlsnap_u32(sizes[i]);
        CHECK_EQ(call(sb, "reserved", &n, 1, &out), HLSNAP_OK);
        CHECK_EQ(out.size, sizes[i] - sizes[i] / 4);
        for (k = 0; k < out.size; k++)
            if (!CHECK_EQ(out.bytes[k], (uint8_t)(k * 31))) break;
    }
    n = hlsnap_u32(1u << 20);
    CHECK_EQ(call(sb, "reserved", &n, 1, &out), HLSNAP_ERR_LIMIT);
    CHECK_EQ(hlsnap_sandbox_view(sb, gva_of(sb, HLSNAP__HEAP), 4096, &p, NULL), HLSNAP_OK);
    CHECK(p == hlsnap__memory_at(&sb->memory, (gva_of(sb, HLSNAP__HEAP) - sb->memory.layout.base) / 4096));
    hlsnap_sandbox_destroy(sb);
}

/* ---- >>runtime ---- */

typedef struct seen { int levels[8]; char text[200]; } seen;
static void on_log(int level, const char *text, size_t size, void *user) {
    seen *s = (seen *)user;
    s->levels[level & 7]++;
    if (size < sizeof(s->text)) memcpy(s->text, text, size + 1);
}
static void say(sandbox *sb, int level) {
    hlsnap_value a[2];
    a[0] = hlsnap_i32(level), a[1] = hlsnap_str("li\x01ne");
    CHECK_EQ(call(sb, "log", a, 2, NULL), HLSNAP_OK);
}

static void logs(void) {
    static const int levels[] = {-1, 0, 1, 2, 3, 4};
    snapshot *s = NULL;
    sandbox *sb;
    size_t i;
    int k;
    NEED_KVM;
    sb = start(&plain);
    NEED(sb);
    say(sb, 1); /* nobody listens */
    {
        seen who;
        memset(&who, 0, sizeof(who));
        hlsnap_sandbox_set_log(sb, 2, on_log, &who);
        say(sb, 2), say(sb, 3);
        hlsnap_sandbox_set_log(sb, 4, NULL, NULL);
        say(sb, 1);
        CHECK(who.levels[2] == 1 && who.levels[3] == 0 && who.levels[1] == 0);
    }
    s = take(sb);
    hlsnap_sandbox_destroy(sb);
    for (i = 0; i < HLSNAP_COUNT(levels) && s; i++) { /* levels are the sandbox's, also of one started from a snapshot */
        options o = plain;
        seen got;
        const int level = levels[i] ? levels[i] : 1;
        memset(&got, 0, sizeof(got));
        o.log = on_log, o.log_user = &got, o.log_level = levels[i];
        sb = from(s, &o);
        NEED(sb);
        for (k = 0; k <= 4; k++) say(sb, k);
        for (k = 0; k <= 4; k++) CHECK_EQ(got.levels[k], k <= level);
        if (level >= 0) CHECK_STR(got.text, "li\\x01ne");
        CHECK_EQ(restore(sb, s), HLSNAP_OK);
        for (k = 0; k <= 4; k++) say(sb, k);
        for (k = 0; k <= 4; k++) CHECK_EQ(got.levels[k], 2 * (k <= level));
        hlsnap_sandbox_destroy(sb);
    }
    hlsnap_snapshot_release(s);
}

static void aborts(void) {
    hlsnap_value a[2], out;
    snapshot *s;
    sandbox *sb;
    NEED_KVM;
    sb = start(&plain);
    NEED(sb);
    s = take(sb);
    a[0] = hlsnap_i32(-99), a[1] = hlsnap_str("enough");
    CHECK_EQ(call(sb, "abort", a, 2, NULL), HLSNAP_ERR_ABORT);
    CHECK_EQ(last.user_code, -99);
    CHECK(poisoned(sb));
    CHECK_EQ(call(sb, "count", HLSNAP_NO_ARGS, &out), HLSNAP_ERR_STATE);
    CHECK_EQ(hlsnap_sandbox_read(sb, gva_of(sb, HLSNAP__HEAP), a, 8, NULL), HLSNAP_ERR_STATE);
    CHECK_EQ(restore(sb, s), HLSNAP_OK);
    CHECK_EQ(call_u64(sb, "count"), 7);
    CHECK_EQ(call(sb, "bad_free", HLSNAP_NO_ARGS, NULL), HLSNAP_ERR_ABORT);
    CHECK_EQ(last.user_code, HLSNAP__ABORT_HEAP);
    CHECK_EQ(restore(sb, s), HLSNAP_OK);
    hlsnap_sandbox_retire(sb);
    CHECK_EQ(call(sb, "count", HLSNAP_NO_ARGS, &out), HLSNAP_ERR_STATE);
    CHECK_EQ(restore(sb, s), HLSNAP_OK);
    CHECK_EQ(call_u64(sb, "count"), 7);
    hlsnap_sandbox_destroy(sb);
    hlsnap_snapshot_release(s);
}

/* What the guest's stack protector and libc read at fs:0x28 and fs:0x30 is new in each of these. */
static void canary_is_new(sandbox *sb, uint64_t (*pairs)[2], int n) {
    hlsnap_error why;
    int i;
    CHECK_EQ(hlsnap_sandbox_read(sb, hlsnap__layout_find(&sb->memory.layout, HLSNAP__IDENTITY)->gva + 0x28, pairs[n], 16, &why), HLSNAP_OK);
    CHECK(pairs[n][0] && pairs[n][1] && (pairs[n][0] & 0xff) == 0);
    for (i = 0; i < n; i++) CHECK(pairs[n][0] != pairs[i][0] && pairs[n][1] != pairs[i][1]);
}

static void randomness_and_generation(void) {
    uint8_t all[40][32];
    uint64_t pairs[22][2];
    hlsnap_value out = VOID_VALUE;
    snapshot *s;
    sandbox *sb, *clone;
    int i, k, n = 0;
    NEED_KVM;
    sb = start(&plain);
    NEED(sb);
    memset(all, 0, sizeof(all));
    s = take(sb);
    clone = from(s, &plain);
    NEED(clone);
    canary_is_new(sb, pairs, n++);
    canary_is_new(clone, pairs, n++);
    for (i = 0; i < 40; i++) { /* twice in a row, in clones, after restores */
        sandbox *who = i % 4 < 2 ? sb : clone;
        if (CHECK_EQ(call(who, "random", HLSNAP_NO_ARGS, &out), HLSNAP_OK) && CHECK_EQ(out.size, 32)) memcpy(all[i], out.bytes, 32);
        for (k = 0; k < i; k++) CHECK(memcmp(all[i], all[k], 32) != 0);
        if (i % 4 != 3) continue;
        CHECK_EQ(restore(sb, s), HLSNAP_OK);
        CHECK_EQ(restore(clone, s), HLSNAP_OK);
        canary_is_new(sb, pairs, n++);
        canary_is_new(clone, pairs, n++);
    }
    for (i = 0; i < 6; i++) {
        const uint64_t g = call_u64(sb, "generation");
        CHECK_EQ(g, s->generation + 1); /* of the snapshot: it does not tell how often the sandbox was restored */
        if (i == 3) { /* a snapshot carries it on */
            snapshot *newer = take(sb);
            sandbox *heir = from(newer, &plain);
            if (CHECK(heir != NULL)) CHECK_EQ(call_u64(heir, "generation"), g + 1);
            hlsnap_sandbox_destroy(heir);
            hlsnap_snapshot_release(newer);
        }
        CHECK_EQ(restore(sb, s), HLSNAP_OK);
    }
    hlsnap_sandbox_destroy(sb);
    hlsnap_sandbox_destroy(clone);
    hlsnap_snapshot_release(s);
}

static void heap(void) {
    hlsnap_value v = hlsnap_u32(40), out = VOID_VALUE;
    sandbox *sb;
    int i;
    NEED_KVM;
    sb = start(&plain);
    NEED(sb);
    for (i = 0; i < 20; i++) {
        v = hlsnap_u32((uint32_t)i * 16);
        CHECK_EQ(call(sb, "heap", &v, 1, &out), HLSNAP_OK);
        CHECK_EQ(out.as.u32, 64);
    }
    v = hlsnap_u32(2000); /* 4 MB in all: does not fit, and nothing is lost over it */
    for (i = 0; i < 3; i++) {
        CHECK_EQ(call(sb, "heap", &v, 1, &out), HLSNAP_OK);
        CHECK(out.as.u32 > 25 && out.as.u32 < 40);
    }
    hlsnap_sandbox_destroy(sb);
}

static void formatting(void) {
    static const double numbers[] = {0.0, -0.0, 1.0, 0.1, 1e300, 5e-324, 2.2250738585072014e-308, 3.141592653589793, 123456789.5, 1e21, 1e-7, 0.5, 1.5, 2.5};
    static const char *const formats[] = {"%f", "%.3f", "%g", "%.17g", "%e", "%10.4e|", "%-12.2f|", "%+.0f", "%#g", "%G", "%.20f"};
    hlsnap_value v[2], out = VOID_VALUE;
    size_t i, k;
    char want[512];
    sandbox *sb;
    NEED_KVM;
    sb = start(&plain);
    NEED(sb);
    for (i = 0; i < HLSNAP_COUNT(numbers); i++)
        for (k = 0; k < HLSNAP_COUNT(formats); k++) {
            v[0] = hlsnap_str(formats[k]), v[1] = hlsnap_f64(numbers[i]);
            snprintf(want, sizeof(want), formats[k], numbers[i]);
            if (CHECK_EQ(call(sb, "number", v, 2, &out), HLSNAP_OK)) CHECK_STR(out.str, want);
        }
    hlsnap_sandbox_destroy(sb);
}

static void thread_local_storage(void) {
    snapshot *s;
    sandbox *sb;
    NEED_KVM;
    sb = start(&plain);
    NEED(sb);
    CHECK_EQ(call_u64(sb, "tls"), 42001);
    CHECK_EQ(call_u64(sb, "tls"), 43002);
    s = take(sb);
    CHECK_EQ(call_u64(sb, "tls"), 44003);
    CHECK_EQ(restore(sb, s), HLSNAP_OK);
    CHECK_EQ(call_u64(sb, "tls"), 44003);
    CHECK_EQ(call_u64(sb, "constructed"), 1234);
    hlsnap_sandbox_destroy(sb);
    hlsnap_snapshot_release(s);
}

static void stack_protector(void) {
    hlsnap_value v = hlsnap_u32(0), out = VOID_VALUE;
    hlsnap_result r;
    sandbox *sb;
    NEED_KVM;
    sb = start(&plain);
    NEED(sb);
    CHECK_EQ(call(sb, "smash", &v, 1, &out), HLSNAP_OK);
    v = hlsnap_u32(200);
    r = call(sb, "smash", &v, 1, NULL);
    if (out.as.i32) CHECK_EQ(r, HLSNAP_ERR_ABORT);
    else note("stack protector", "not in this guest");
    if (r == HLSNAP_ERR_ABORT) CHECK_EQ(last.user_code, HLSNAP__ABORT_STACK);
    else CHECK_EQ(r, HLSNAP_ERR_FAULT);
    CHECK(poisoned(sb));
    hlsnap_sandbox_destroy(sb);
}

/* This program as its own guest: works, but for sanitizers whose shadow memory and libraries the VM lacks. */
static hlsnap_result self_answer(hlsnap_call *in, void *user) {
    (void)user;
    return hlsnap_call_return(in, hlsnap_i32(hlsnap_call_arg(in, 0).as.i32 + 1));
}
static const hlsnap_function self_exports[] = {{"answer", "i32(i32)", self_answer, NULL}};
static const hlsnap_module self_module = {self_exports, HLSNAP_COUNT(self_exports), NULL, 0};
static void self_guest(void) {
    hlsnap_guest_desc g = HLSNAP_ZERO;
    hlsnap_sandbox_desc d = HLSNAP_ZERO;
    hlsnap_value v = hlsnap_i32(41), out = VOID_VALUE;
    sandbox *sb = NULL;
    NEED_KVM;
    g.self = &self_module;
    d.hypervisor = hv;
    if (HLSNAP__SANITIZED) {
        CHECK_EQ(hlsnap_sandbox_create(&g, &d, &sb, &last), HLSNAP_ERR_SELF);
        CHECK(!sb && strstr(last.msg, "built with a sanitizer"));
        return;
    }
    CHECK_EQ(hlsnap_sandbox_create(&g, &d, &sb, &last), HLSNAP_OK);
    NEED(sb);
    CHECK_EQ(call(sb, "answer", &v, 1, &out), HLSNAP_OK);
    CHECK_EQ(out.as.i32, 42);
    hlsnap_sandbox_destroy(sb);
}

static void cpp_guest(void) {
    options o = plain;
    sandbox *sb;
    hlsnap_value v;
    NEED_KVM;
    if (access(cpp_file, R_OK)) SKIP("no guest_kvm_cpp.elf in GUEST_DIR");
    o.cpp = true;
    sb = start(&o);
    NEED(sb);
    CHECK(sb->guest->noted); /* what is built with the runtime says so: hlsnap__init_hint */
    CHECK_EQ(call_u64(sb, "constructed"), 1234);
    CHECK_EQ(call_u64(sb, "tls"), 42001);
    CHECK_EQ(hlsnap_sandbox_call(sb, "many74", HLSNAP_ARGS(hlsnap_str("x")), &v, NULL), HLSNAP_OK);
    CHECK(v.type == HLSNAP_STR && v.size == 1 && v.str[0] == 'x');
    types_in(sb); /* the imports, whose signatures stand behind those of all exports, too */
    hlsnap_sandbox_destroy(sb);
}

/* ---- >>faults ---- */

enum place { /* where a row of the table points; resolved against the guest */
    AT_NUMBER, AT_TEXT, AT_RODATA, AT_DATA, AT_BSS, AT_TLS, AT_STACK, AT_HEAP, AT_MAILBOX, AT_IDENTITY, AT_GUARD_STACK, AT_GUARD_HEAP, AT_END
};
enum fault_flag { F_MAY_PASS = 1, F_RIP_IS_TARGET = 2, F_NO_CR2 = 4, F_ANY_RIP = 8, F_ANY_CODE = 16, F_CR2_GUARD = 32, F_QEMU_PASSES = 64,
    F_XSAVE = 128 };           /* vector 6 and no other where the kernel has XSAVE off */
typedef struct fault_row {
    uint32_t kind, place;
    uint64_t number;           /* AT_NUMBER: the address or port; else added to the place */
    uint32_t vector, code;
    const char *region;        /* NULL = not looked at */
    uint32_t flags;
    uint32_t vector2, code2;   /* another answer some KVM gives; vector2 0 = none */
} fault_row;

#define SYS(page) HLSNAP__SYS_AT(page)
static const fault_row fault_rows[] = {
    {FAULT_DIV, 0, 0, 0, 0, "text", F_NO_CR2, 0, 0},
    {FAULT_UD, 0, 0, 6, 0, "text", F_NO_CR2, 0, 0},
    {FAULT_READ, 0, 0, 14, 4, "null", 0, 0, 0},
    {FAULT_WRITE, 0, 8, 14, 6, "null", 0, 0, 0},
    {FAULT_EXEC, 0, 0, 14, 0x14, "null", F_RIP_IS_TARGET, 0, 0},
    {FAULT_READ, 0, 0x10000, 14, 4, "unresolved", 0, 0, 0},
    {FAULT_EXEC, 0, 0x10010, 14, 0x14, "unresolved", F_RIP_IS_TARGET, 0, 0},
    {FAULT_READ, 0, 0x700000000000, 14, 4, "unmapped", 0, 0, 0},
    {FAULT_WRITE, 0, 0x700000000000, 14, 6, "unmapped", 0, 0, 0},
    {FAULT_EXEC, 0, 0x700000000000, 14, 0x14, "unmapped", F_RIP_IS_TARGET, 0, 0},
    {FAULT_READ, 0, 0x7ffffffffff8, 14, 4, "unmapped", 0, 0, 0},
    {FAULT_READ, 0, 0xffff800000000000, 14, 4, "unmapped", 0, 14, 0xd}, /* kvm-pvm: reserved bit, in its own half */
    {FAULT_READ, 0, 0xfffffffffffffff8, 14, 4, "unmapped", 0, 0, 0},
    {FAULT_WRITE, AT_TEXT, 0, 14, 7, "text", 0, 0, 0},
    {FAULT_WRITE, AT_RODATA, 0, 14, 7, "rodata", 0, 0, 0},
    {FAULT_WRITE, AT_IDENTITY, 0, 14, 7, "identity", 0, 0, 0},
    {FAULT_WRITE, AT_IDENTITY, 0x28, 14, 7, "identity", 0, 0, 0},
    {FAULT_EXEC, AT_RODATA, 0, 14, 0x15, "rodata", F_RIP_IS_TARGET, 0, 0},
    {FAULT_EXEC, AT_DATA, 0, 14, 0x15, "data", F_RIP_IS_TARGET, 0, 0},
    {FAULT_EXEC, AT_BSS, 0, 14, 0x15, "data", F_RIP_IS_TARGET, 0, 0},
    {FAULT_EXEC, AT_TLS, 0, 14, 0x15, "tls", F_RIP_IS_TARGET, 0, 0},
    {FAULT_EXEC, AT_STACK, 0, 14, 0x15, "stack", F_RIP_IS_TARGET, 0, 0},
    {FAULT_EXEC, AT_HEAP, 0, 14, 0x15, "heap", F_RIP_IS_TARGET, 0, 0},
    {FAULT_EXEC, AT_MAILBOX, 0, 14, 0x15, "mailbox", F_RIP_IS_TARGET, 0, 0},
    {FAULT_EXEC, AT_IDENTITY, 0, 14, 0x15, "identity", F_RIP_IS_TARGET, 0, 0},
    {FAULT_READ, AT_GUARD_STACK, 0, 14, 4, "guard", 0, 0, 0},
    {FAULT_WRITE, AT_GUARD_HEAP, 0, 14, 6, "guard", 0, 0, 0},
    {FAULT_READ, AT_END, 0, 14, 4, "unmapped", 0, 0, 0},
    {FAULT_READ, 0, SYS(HLSNAP__SYS_TABLES), 14, 5, "supervisor", 0, 0, 0},
    {FAULT_WRITE, 0, SYS(HLSNAP__SYS_TABLES) + 0x168, 14, 7, "supervisor", 0, 0, 0},
    {FAULT_EXEC, 0, SYS(HLSNAP__SYS_TABLES), 14, 0x15, "supervisor", F_RIP_IS_TARGET, 0, 0},
    {FAULT_READ, 0, SYS(HLSNAP__SYS_TABLES) + HLSNAP__IDT_OFFSET, 14, 5, "supervisor", 0, 0, 0},
    {FAULT_WRITE, 0, SYS(HLSNAP__SYS_TABLES) + HLSNAP__IDT_OFFSET, 14, 7, "supervisor", 0, 0, 0},
    {FAULT_READ, 0, SYS(HLSNAP__SYS_STUBS), 14, 5, "supervisor", 0, 0, 0},
    {FAULT_EXEC, 0, SYS(HLSNAP__SYS_STUBS), 14, 0x15, "supervisor", F_RIP_IS_TARGET, 0, 0},
    {FAULT_WRITE, 0, SYS(HLSNAP__SYS_STACK), 14, 7, "supervisor", 0, 0, 0},
    {FAULT_WRITE, 0, SYS(HLSNAP__SYS_STACK) + HLSNAP__IST_TOP - 8, 14, 7, "supervisor", 0, 0, 0},
    {FAULT_WRITE, 0, SYS(HLSNAP__SYS_GATE), 14, 7, "supervisor", 0, 0, 0},
    {FAULT_WRITE, 0, SYS(HLSNAP__SYS_XSAVE), 14, 7, "supervisor", 0, 0, 0},
    {FAULT_EXEC, 0, SYS(HLSNAP__SYS_XSAVE), 14, 0x15, "supervisor", F_RIP_IS_TARGET, 0, 0},
    {FAULT_READ, 0, SYS(HLSNAP__SYS_PAGING), 14, 4, "supervisor", 0, 0, 0},
    {FAULT_WRITE, 0, SYS(HLSNAP__SYS_PAGING), 14, 6, "supervisor", 0, 0, 0},
    {FAULT_WRITE, 0, SYS(HLSNAP__SYS_PAGING + 3), 14, 6, "supervisor", 0, 0, 0},
    {FAULT_EXEC, 0, SYS(HLSNAP__SYS_PAGING), 14, 0x14, "supervisor", F_RIP_IS_TARGET, 0, 0},
    {FAULT_GATE, 0, SYS(HLSNAP__SYS_GATE) + HLSNAP__GATE_SCRUB, 14, 4, "null", F_ANY_RIP | F_XSAVE, 13, 0},
    {FAULT_GATE, 0, SYS(HLSNAP__SYS_GATE) + HLSNAP__GATE_ENTER, 14, 0x14, "null", F_ANY_RIP, 0, 0},
    {FAULT_EXEC, 0, SYS(HLSNAP__SYS_GATE) + 64, 13, 0, "supervisor", F_NO_CR2 | F_ANY_RIP, 0, 0}, /* HLT fills the gate page */
    {FAULT_EXEC, 0, SYS(HLSNAP__SYS_GATE) + HLSNAP__GATE_SYSCALL, 14, 0x14, "supervisor", F_NO_CR2 | F_ANY_RIP, 0, 0}, /* the slot leads nowhere */
    {FAULT_EXEC, 0, SYS(HLSNAP__SYS_GATE) + HLSNAP__GATE_SYSRET, 14, 0x14, "supervisor", F_NO_CR2 | F_ANY_RIP, 0, 0},
    {FAULT_WRITE, 0, SYS(HLSNAP__SYS_GATE) + HLSNAP__GATE_SLOT, 14, 7, "supervisor", 0, 0, 0},
    {FAULT_EXEC, 0, SYS(HLSNAP__SYS_STUBS) + HLSNAP__STUB_SYSCALL, 14, 0x15, "supervisor", F_RIP_IS_TARGET, 0, 0},
    {FAULT_EXEC, 0, HLSNAP__SYSCALL_GVA, 14, 0x14, "supervisor", F_RIP_IS_TARGET, 0, 0},
    {FAULT_STACK, 0, 0, 14, 6, "guard", F_CR2_GUARD, 0, 0},
    {FAULT_RSP, 0, 0, 12, 0, "text", F_NO_CR2, 13, 0}, /* 13: QEMU without KVM, here and below */
    {FAULT_READ, 0, 0x8000000000000000, 13, 0, "text", F_NO_CR2, 0, 0},
    {FAULT_WRITE, 0, 0x0000800000000000, 13, 0, "text", F_NO_CR2, 0, 0},
    {FAULT_EXEC, 0, 0x8000000000000000, 13, 0, NULL, F_NO_CR2 | F_ANY_RIP, 0, 0},
    {FAULT_HLT, 0, 0, 13, 0, "text", F_NO_CR2, 0, 0},
    {FAULT_CLI, 0, 0, 13, 0, "text", F_NO_CR2, 0, 0},
    {FAULT_STI, 0, 0, 13, 0, "text", F_NO_CR2, 0, 0},
    {FAULT_IN, 0, 0x20, 13, 0, "text", F_NO_CR2, 0, 0},
    {FAULT_IN, 0, 0xdf, 13, 0, "text", F_NO_CR2, 0, 0},
    {FAULT_OUT, 0, 0x20, 13, 0, "text", F_NO_CR2, 0, 0},
    {FAULT_OUT, 0, 0x2e, 13, 0, "text", F_NO_CR2, 0, 0},
    {FAULT_OUT, 0, 0xe2, 13, 0, "text", F_NO_CR2, 0, 0},
    {FAULT_OUT, 0, 0x80, 13, 0, "text", F_NO_CR2, 0, 0},
    {FAULT_OUT, 0, 0x7e, 13, 0, "text", F_NO_CR2, 0, 0},
    {FAULT_OUT, 0, 0x100, 13, 0, "text", F_NO_CR2, 0, 0},
    {FAULT_OUT, 0, 0x1e0, 13, 0, "text", F_NO_CR2, 0, 0},
    {FAULT_OUT, 0, 0x3f8, 13, 0, "text", F_NO_CR2, 0, 0},
    {FAULT_OUT, 0, 0xffff, 13, 0, "text", F_NO_CR2, 0, 0},
    {FAULT_OUT16, 0, 0xe1, 13, 0, "text", F_NO_CR2, 0, 0},
    {FAULT_OUT16, 0, 0xdf, 13, 0, "text", F_NO_CR2, 0, 0},
    {FAULT_MOV_CR0, 0, 0, 13, 0, "text", F_NO_CR2, 0, 0},
    {FAULT_MOV_CR3, 0, 0, 13, 0, "text", F_NO_CR2, 0, 0},
    {FAULT_LGDT, 0, 0, 13, 0, "text", F_NO_CR2, 0, 0},
    {FAULT_INT3, 0, 0, 3, 0, "text", F_NO_CR2, 0, 0},
    {FAULT_INT_N, 0, 0, 13, 0x80 * 8 + 2, "text", F_NO_CR2 | F_ANY_CODE, 6, 0}, /* QEMU: 0x80 * 16 + 2 */
    {FAULT_INT_14, 0, 0, 13, 14 * 8 + 2, "text", F_NO_CR2 | F_ANY_CODE, 6, 0},
    {FAULT_ICEBP, 0, 0, 1, 0, "text", F_NO_CR2, 6, 0},
    {FAULT_ALIGN, 0, 0, 17, 0, "text", F_NO_CR2 | F_QEMU_PASSES, 0, 0},
    {FAULT_SSE_ALIGN, 0, 0, 13, 0, "text", F_NO_CR2, 0, 0},
    {FAULT_SYSCALL, 0, 0, 6, 0, NULL, F_NO_CR2 | F_ANY_RIP | F_ANY_CODE, 14, 0},
    {FAULT_SYSENTER, 0, 0, 13, 0, NULL, F_NO_CR2, 6, 0},
    {FAULT_RDMSR, 0, 0, 13, 0, "text", F_NO_CR2, 0, 0},
    {FAULT_WRMSR, 0, 0, 13, 0, "text", F_NO_CR2, 0, 0},
    {FAULT_CPUID, 0, 0, 255, 0, NULL, F_MAY_PASS, 0, 0},
    {FAULT_SWAPGS, 0, 0, 13, 0, "text", F_NO_CR2, 6, 0},
    {FAULT_WRFSBASE, 0, 0x12345000, 6, 0, "text", F_MAY_PASS | F_NO_CR2, 0, 0},
    {FAULT_WRGSBASE, 0, 0x12345000, 6, 0, "text", F_MAY_PASS | F_NO_CR2, 0, 0},
    {FAULT_VMCALL, 0, 0, 6, 0, "text", F_MAY_PASS | F_NO_CR2, 13, 0},
    {FAULT_VMMCALL, 0, 0, 6, 0, "text", F_MAY_PASS | F_NO_CR2, 14, 7},
    {FAULT_SIMD, 0, 0, 19, 0, "text", F_NO_CR2 | F_QEMU_PASSES, 0, 0},
    {FAULT_X87, 0, 0, 16, 0, "text", F_NO_CR2, 0, 0},
    {FAULT_TF, 0, 0, 1, 0, "text", F_NO_CR2, 0, 0},
    {FAULT_IRET, 0, 0, 13, 8, "text", F_NO_CR2 | F_ANY_CODE, 14, 1},
};

static uint64_t place_of(const sandbox *sb, const guest_addresses *a, const fault_row *row) {
    const hlsnap__layout *l = &sb->memory.layout;
    const hlsnap__region *heap = hlsnap__layout_find(l, HLSNAP__HEAP);
    switch (row->place) {
    case AT_TEXT: return a->text + row->number;
    case AT_RODATA: return a->rodata + row->number;
    case AT_DATA: return a->data + row->number;
    case AT_BSS: return a->bss + row->number;
    case AT_TLS: return a->tls + row->number;
    case AT_STACK: return a->stack + row->number;
    case AT_HEAP: return a->heap + row->number;
    case AT_MAILBOX: return gva_of(sb, HLSNAP__MAILBOX) + row->number;
    case AT_IDENTITY: return gva_of(sb, HLSNAP__IDENTITY) + row->number;
    case AT_GUARD_STACK: return gva_of(sb, HLSNAP__STACK) - 8;
    case AT_GUARD_HEAP: return heap->gva - 8;
    case AT_END: return heap->gva + heap->pages * 4096;
    default: return row->number;
    }
}

static bool in_text(const sandbox *sb, uint64_t gva) {
    const hlsnap__region *r = hlsnap__layout_at(&sb->memory.layout, gva);
    return r && r->kind == HLSNAP__TEXT;
}

static const char *vector_text(uint32_t vector, uint32_t code) {
    static char text[32];
    snprintf(text, sizeof(text), "vector %u code 0x%x", vector, code);
    return text;
}

/* What the error of one row must say. */
static bool fault_as_said(const sandbox *sb, const fault_row *row, uint64_t at, bool other) {
    const uint32_t vector = other ? row->vector2 : row->vector, code = other ? row->code2 : row->code;
    int bad = test_bad;
    CHECK_EQ(last.vector, vector);
    if (!(row->flags & F_ANY_CODE)) CHECK_EQ(last.error_code, code);
    if (row->kind == FAULT_SYSCALL) CHECK(in_text(sb, last.rip) && strstr(last.msg, "write (1)"));
    else if (row->flags & F_RIP_IS_TARGET) CHECK_EQ(last.rip, at);
    else if (!(row->flags & F_ANY_RIP)) CHECK(in_text(sb, last.rip));
    if (vector == 14 && row->flags & F_CR2_GUARD) CHECK(gva_of(sb, HLSNAP__STACK) - last.cr2 - 1 < 4096);
    else if (vector == 14 && !(row->flags & (F_NO_CR2 | F_ANY_RIP))) CHECK_EQ(last.cr2, at);
    if (row->region && !(other && vector == 14)) CHECK_STR(last.region, row->region);
    return bad == test_bad;
}

static bool no_xsave(void) {
    uint32_t r[4];
    hlsnap__cpuid(1, 0, r);
    return !(r[2] >> 27 & 1); /* OSXSAVE */
}

static void fault_row_check(sandbox *sb, const fault_row *row, const guest_addresses *a, snapshot *s, uint64_t text_sum) {
    hlsnap_value v[2], out = VOID_VALUE;
    const uint64_t at = place_of(sb, a, row);
    char name[40];
    hlsnap_result r;
    bool ok = true;
    snprintf(name, sizeof(name), "fault %u 0x%llx", row->kind, (unsigned long long)row->number);
    v[0] = hlsnap_u32(row->kind), v[1] = hlsnap_u64(at);
    call_u64(sb, "count"); /* so that a reset has something to undo */
    r = call(sb, "fault", v, 2, &out);
    if (r == HLSNAP_OK && (row->flags & F_MAY_PASS || (row->flags & F_QEMU_PASSES && is_slow))) {
        if (row->kind != FAULT_CPUID) note(name, "no fault");
        CHECK(ready(sb));
    } else {
        const fault_row ud = {row->kind, row->place, row->number, 6, 0, "supervisor", row->flags, 0, 0};
        const bool other = row->vector2 && last.vector == row->vector2 && (last.vector != row->vector || last.error_code == row->code2);
        ok = CHECK_EQ(r, HLSNAP_ERR_FAULT) &&
             (row->flags & F_XSAVE && no_xsave() ? fault_as_said(sb, &ud, at, false) : fault_as_said(sb, row, at, other));
        if (row->vector2 || row->flags & (F_MAY_PASS | F_ANY_CODE)) note(name, vector_text(last.vector, last.error_code));
        CHECK(poisoned(sb));
        CHECK_EQ(hlsnap_sandbox_call(sb, "count", HLSNAP_NO_ARGS, NULL, NULL), HLSNAP_ERR_STATE);
    }
    if (!ok) printf("# in %s: %s\n", name, last.msg);
    CHECK_EQ(restore(sb, s), HLSNAP_OK);
    CHECK_EQ(call_u64(sb, "count"), 7);
    v[0] = hlsnap_u64(a->text & ~4095ull), v[1] = hlsnap_u64(4096);
    CHECK(call(sb, "sum", v, 2, &out) == HLSNAP_OK && out.as.u64 == text_sum);
}

static void faults(void) {
    hlsnap_value v[2], out = VOID_VALUE;
    guest_addresses a;
    snapshot *s;
    sandbox *sb;
    size_t i;
    NEED_KVM;
    sb = start(&plain);
    NEED(sb);
    s = take(sb);
    if (CHECK(addresses_of(sb, &a))) {
        v[0] = hlsnap_u64(a.text & ~4095ull), v[1] = hlsnap_u64(4096);
        CHECK_EQ(call(sb, "sum", v, 2, &out), HLSNAP_OK);
        for (i = 0; i < HLSNAP_COUNT(fault_rows); i++) fault_row_check(sb, &fault_rows[i], &a, s, out.as.u64);
    }
    hlsnap_sandbox_destroy(sb);
    hlsnap_snapshot_release(s);
}

/* ---- >>ports: IN, string forms and wide OUTs reach the allowed ports too, and must be no call ---- */

static void port_attack(sandbox *sb, uint32_t kind, uint32_t number) {
    hlsnap_value v[2];
    hlsnap_result r;
    v[0] = hlsnap_u32(kind), v[1] = hlsnap_u32(number);
    r = call(sb, "port", v, 2, NULL);
    if (r == HLSNAP_ERR_FAULT) { /* forms that reach beyond the two ports */
        CHECK(kind == PORT_IN32 || kind == PORT_OUT32 || (number == HLSNAP_ABI_PORT_CALL && (kind == PORT_IN16 || kind == PORT_OUT16 || kind == PORT_REP_OUTSW)));
        CHECK_EQ(last.vector, 13);
    } else if (!CHECK_EQ(r, HLSNAP_ERR_PROTOCOL)) {
        printf("# port form %u at 0x%x: %s\n", kind, number, last.msg);
    }
    CHECK(poisoned(sb));
}

static void ports(void) {
    options bigger = small;
    uint64_t entry;
    snapshot *s, *t;
    sandbox *sb, *other;
    uint32_t i, rounds = is_slow ? 5 : 20;
    NEED_KVM;
    bigger.heap = 512 << 10; /* another layout, the same code at the same addresses */
    sb = start(&small);
    other = start(&bigger);
    NEED(sb && other ? sb : NULL);
    call_u64(other, "count");
    s = take(sb);
    t = take(other);
    CHECK_EQ(s->guest->entry, t->guest->entry);
    entry = s->guest->entry;
    for (i = 0; i < rounds * PORT_NUM; i++) { /* the pending completion of one tenant must not hit the next one's first call */
        port_attack(sb, i % PORT_NUM, i / PORT_NUM % 2 ? HLSNAP_ABI_PORT_CALL : HLSNAP_ABI_PORT_RETURN);
        CHECK_EQ(restore(sb, i % 3 ? t : s), HLSNAP_OK);
        CHECK_EQ(sb->guest->entry, entry);
        CHECK_EQ(call_u64(sb, "count"), i % 3 ? 8 : 7);
        CHECK_EQ(call_u64(sb, "tls"), 42001);
    }
    hlsnap_sandbox_destroy(sb);
    hlsnap_sandbox_destroy(other);
    hlsnap_snapshot_release(s);
    hlsnap_snapshot_release(t);
}

/* Raw guests, made by hand: init lists one export f: u64() and names a second entry, 256 bytes into the text, whose code differs. */
#define RAW_HEAD(name) ".balign 64\n" #name ":\n" \
    "movl 24(%rdi),%eax\n lea (%rdi,%rax),%rdx\n mov %rdi,%r8\n lea 8f(%rip),%rsi\n mov %rdx,%rdi\n mov $9,%ecx\n rep movsq\n mov %r8,%rdi\n" \
    "movl $1,60(%rdi)\n movl $2,56(%rdi)\n movl $1,40(%rdi)\n lea 7f(%rip),%rax\n mov %rax,48(%rdi)\n" \
    "6: outb %al,$0xe0\n jmp 6b\n" \
    ".balign 8\n8: .long 72, 0, 0, 2, 8, 1\n .quad 48\n .long 8, 5\n .quad 56\n .asciz \"f\"\n .balign 8\n .asciz \"u64()\"\n .balign 8\n" \
    ".org " #name "+256, 0xcc\n7:\n"
#define RAW_END(name) "\n.org " #name "+512, 0xcc\n"
/* a proper answer: rax as it was at entry, every other register that should be zero added in; rsi is the identity page, as FS base */
#define RAW_ANSWER \
    "xor %fs:0,%rsi\n or %rbx,%rax\n or %rcx,%rax\n or %rdx,%rax\n or %rsi,%rax\n or %rbp,%rax\n or %r8,%rax\n or %r9,%rax\n or %r10,%rax\n" \
    "movl 24(%rdi),%ecx\n add %rdi,%rcx\n movl $32,(%rcx)\n movl $1,12(%rcx)\n movl $5,16(%rcx)\n movl $0,20(%rcx)\n" \
    "add $1000,%rax\n mov %rax,24(%rcx)\n movq $0,4(%rcx)\n movl $1,40(%rdi)\n 5: outb %al,$0xe0\n jmp 5b\n"
__asm__(".section .rodata\n"
        RAW_HEAD(raw_answer) RAW_ANSWER RAW_END(raw_answer)
        RAW_HEAD(raw_out) "outb %al,$0xe0\n ud2\n" RAW_END(raw_out)
        RAW_HEAD(raw_call) "outb %al,$0xe1\n ud2\n" RAW_END(raw_call)
        RAW_HEAD(raw_out16) "outw %ax,$0xe0\n ud2\n" RAW_END(raw_out16)
        RAW_HEAD(raw_in) "inb $0xe0,%al\n ud2\n" RAW_END(raw_in)
        RAW_HEAD(raw_ins) "mov %rsp,%rdi\n sub $64,%rdi\n mov $0xe0,%edx\n insb\n ud2\n" RAW_END(raw_ins)
        RAW_HEAD(raw_outs) "mov $3,%ecx\n mov $0xe0,%edx\n mov %rdi,%rsi\n rep outsb\n ud2\n" RAW_END(raw_outs)
        RAW_HEAD(raw_mid) "nop\n nop\n inb $0xe0,%al\n ud2\n" RAW_END(raw_mid)
        ".previous\n");
extern const uint8_t raw_answer[512], raw_out[512], raw_call[512], raw_out16[512], raw_in[512], raw_ins[512], raw_outs[512], raw_mid[512];

static snapshot *raw_guest(const uint8_t *code, sandbox **out) {
    static uint8_t file[4096 + 512];
    hlsnap_guest_desc g = HLSNAP_ZERO;
    hlsnap_sandbox_desc d = HLSNAP_ZERO;
    hlsnap_error err;
    snapshot *s;
    Elf64_Ehdr h;
    Elf64_Phdr p;
    memset(file, 0, sizeof(file));
    memset(&h, 0, sizeof(h));
    memset(&p, 0, sizeof(p));
    memcpy(h.e_ident, ELFMAG, SELFMAG);
    h.e_ident[EI_CLASS] = ELFCLASS64, h.e_ident[EI_DATA] = ELFDATA2LSB, h.e_ident[EI_VERSION] = EV_CURRENT;
    h.e_type = ET_EXEC, h.e_machine = EM_X86_64, h.e_version = EV_CURRENT, h.e_entry = 0x400000;
    h.e_phoff = sizeof(h), h.e_ehsize = sizeof(h), h.e_phentsize = sizeof(p), h.e_phnum = 1;
    p.p_type = PT_LOAD, p.p_flags = PF_R | PF_X, p.p_offset = 4096, p.p_vaddr = 0x400000, p.p_filesz = p.p_memsz = 512, p.p_align = 4096;
    memcpy(file, &h, sizeof(h));
    memcpy(file + sizeof(h), &p, sizeof(p));
    memcpy(file + 4096, code, 512);
    g.data = file, g.data_size = sizeof(file);
    g.heap_size = 4096, g.stack_size = 8192, g.mailbox_size = 8192;
    d.hypervisor = hv;
    *out = NULL;
    if (hlsnap_sandbox_create(&g, &d, out, &err)) {
        printf("# raw guest: %s\n", err.msg);
        test_bad++;
        return NULL;
    }
    s = take(*out);
    return s;
}

static void pending_completion(void) {
    static const uint8_t *const codes[] = {raw_answer, raw_out, raw_call, raw_out16, raw_in, raw_ins, raw_outs, raw_mid};
    enum { N = 8 };
    snapshot *s[N];
    sandbox *sb[N];
    uint32_t i, k, n, rounds = is_slow ? 40 : 200;
    NEED_KVM;
    for (i = 0; i < N; i++) s[i] = raw_guest(codes[i], &sb[i]);
    for (i = 0; i < N; i++) NEED(s[i]);
    for (i = 0; i < N; i++) CHECK_EQ(s[i]->guest->entry, 0x400100);
    for (k = 1; k < N; k++)
        for (n = 0; n < rounds; n++) {
            const hlsnap_result r = call(sb[0], "f", HLSNAP_NO_ARGS, NULL);
            CHECK_EQ(r, HLSNAP_OK); /* raw_answer stands first */
            CHECK_EQ(restore(sb[0], s[k]), HLSNAP_OK);
            CHECK_EQ(call(sb[0], "f", HLSNAP_NO_ARGS, NULL), HLSNAP_ERR_PROTOCOL); /* never the UD2 behind it */
            CHECK(poisoned(sb[0]));
            if (n % 2) { /* the same guest again: its entry is the instruction that was left by */
                CHECK_EQ(restore(sb[0], s[k]), HLSNAP_OK);
                CHECK_EQ(call(sb[0], "f", HLSNAP_NO_ARGS, NULL), HLSNAP_ERR_PROTOCOL);
            }
            if (n % 3 == 0) {
                CHECK_EQ(restore(sb[0], s[1 + (k + n) % (N - 1)]), HLSNAP_OK);
                CHECK_EQ(call(sb[0], "f", HLSNAP_NO_ARGS, NULL), HLSNAP_ERR_PROTOCOL);
            }
            CHECK_EQ(restore(sb[0], s[0]), HLSNAP_OK);
            CHECK_EQ(call_u64(sb[0], "f"), 1000);
            if (test_bad > 20) break;
        }
    for (i = 0; i < N; i++) {
        hlsnap_sandbox_destroy(sb[i]);
        hlsnap_snapshot_release(s[i]);
    }
}

/* ---- >>cancel ---- */

typedef struct turn { /* one thread does, the other answers, round by round */
    int32_t go, ready, done, stop, answer;
    uint64_t delay_ns;
    hlsnap_interrupt *h;
} turn;

static int32_t load32(const int32_t *p) { return __atomic_load_n(p, __ATOMIC_ACQUIRE); }
static void store32(int32_t *p, int32_t v) { __atomic_store_n(p, v, __ATOMIC_RELEASE); }

static void *canceller(void *user) {
    turn *t = (turn *)user;
    int32_t round = 0;
    for (;;) {
        while (load32(&t->go) == round && !load32(&t->stop)) sched_yield();
        if (load32(&t->stop)) return NULL;
        round = load32(&t->go);
        store32(&t->ready, round);
        if (round % 4) nap_us(t->delay_ns / 1000); /* leaves the core to the call, where there are few */
        else spin_ns(t->delay_ns);
        store32(&t->answer, hlsnap_interrupt_cancel(t->h));
        store32(&t->done, round);
    }
}

typedef struct neighbour { sandbox *sb; int32_t stop; uint64_t calls, bad; } neighbour;
static void *neighbour_calls(void *user) {
    neighbour *n = (neighbour *)user;
    hlsnap_value v = hlsnap_i32(3), out;
    while (!load32(&n->stop)) {
        const bool host = n->calls % 3 == 0;
        if (hlsnap_sandbox_call(n->sb, host ? "host_loop" : "echo_i32", &v, 1, &out, NULL) || out.as.i32 != 3) n->bad++;
        n->calls++;
    }
    return NULL;
}

#define NUM_SIGNALS 65 /* the kernel's, and 0 */
typedef struct signals { sigset_t mask, pending; struct sigaction actions[NUM_SIGNALS]; } signals;
static void signals_get(signals *s) {
    int i;
    memset(s, 0, sizeof(*s));
    pthread_sigmask(SIG_BLOCK, NULL, &s->mask);
    sigpending(&s->pending);
    for (i = 1; i < NUM_SIGNALS; i++) sigaction(i, NULL, &s->actions[i]); /* libc keeps some to itself: they stay zero */
}
static bool action_same(const struct sigaction *a, const struct sigaction *b) {
    int i;
    for (i = 1; i < NUM_SIGNALS; i++)
        if (sigismember(&a->sa_mask, i) != sigismember(&b->sa_mask, i)) return false;
    return a->sa_flags == b->sa_flags && a->sa_handler == b->sa_handler;
}
static bool handlers_same(const signals *before, const signals *s) {
    int i;
    for (i = 1; i < NUM_SIGNALS; i++)
        if (!action_same(&s->actions[i], &before->actions[i])) return false;
    return true;
}
static bool signals_same(const signals *before) {
    signals s;
    int i;
    signals_get(&s);
    for (i = 1; i < NUM_SIGNALS; i++)
        if (sigismember(&s.mask, i) != sigismember(&before->mask, i) || sigismember(&s.pending, i) != sigismember(&before->pending, i)) return false;
    return handlers_same(before, &s);
}

static void cancel_rounds(sandbox *sb, snapshot *s, turn *t, uint32_t after, uint32_t last_round, uint32_t *hits) {
    uint32_t i;
    signals before;
    signals_get(&before);
    for (i = after + 1; i <= last_round && test_bad < 10; i++) {
        hlsnap_value v = hlsnap_u64(1 + below(is_slow ? 30000 : 400000)), n = hlsnap_i32((int32_t)below(12)), out;
        const bool host = i % 4 == 0;
        hlsnap_result r;
        t->delay_ns = below(400000);
        store32(&t->go, (int32_t)i);
        while (load32(&t->ready) != (int32_t)i) sched_yield();
        if (i % 5 == 0) spin_ns(below(100000)); /* so that some come before */
        r = host ? call(sb, "host_loop", &n, 1, &out) : call(sb, "spin", &v, 1, &out);
        if (r && r != HLSNAP_ERR_CANCELLED) printf("# %s\n", last.msg);
        while (load32(&t->done) != (int32_t)i) sched_yield();
        CHECK_EQ(r, load32(&t->answer) ? HLSNAP_ERR_CANCELLED : HLSNAP_OK);
        CHECK_EQ(poisoned(sb), r != HLSNAP_OK);
        *hits += r != HLSNAP_OK;
        CHECK(signals_same(&before));
        if (r || i % 7 == 0) CHECK_EQ(restore(sb, s), HLSNAP_OK);
    }
}

static void cancel_random(void) {
    const uint32_t rounds = is_slow ? 100 : 2000;
    uint32_t hits = 0;
    pthread_t thread, other;
    neighbour n;
    snapshot *s;
    sandbox *sb;
    turn t;
    NEED_KVM;
    sb = start(&small);
    memset(&n, 0, sizeof(n));
    memset(&t, 0, sizeof(t));
    n.sb = start(&small);
    NEED(sb && n.sb ? sb : NULL);
    s = take(sb);
    t.h = hlsnap_sandbox_get_interrupt(sb);
    CHECK(!hlsnap_interrupt_cancel(t.h));
    pthread_create(&thread, NULL, canceller, &t);
    cancel_rounds(sb, s, &t, 0, rounds * 3 / 4, &hits);
    pthread_create(&other, NULL, neighbour_calls, &n);
    cancel_rounds(sb, s, &t, rounds * 3 / 4, rounds, &hits);
    store32(&t.stop, 1);
    store32(&n.stop, 1);
    pthread_join(thread, NULL);
    pthread_join(other, NULL);
    printf("# cancel: %u of %u calls hit; neighbour: %llu calls\n", hits, rounds, (unsigned long long)n.calls);
    CHECK(hits > 0 && hits < rounds);
    CHECK_EQ(n.bad, 0);
    hlsnap_sandbox_destroy(sb);
    hlsnap_sandbox_destroy(n.sb);
    CHECK(!hlsnap_interrupt_cancel(t.h)); /* outlives the sandbox */
    hlsnap_interrupt_release(t.h);
    hlsnap_interrupt_release(NULL);
    hlsnap_snapshot_release(s);
}

/* An endless loop, cancelled from another thread; time from the cancel to the return. */
static void cancel_endless(void) {
    enum { N = 50 };
    hlsnap_value forever = hlsnap_u64(0);
    uint64_t worst = 0;
    pthread_t thread;
    snapshot *s;
    sandbox *sb;
    turn t;
    int i;
    NEED_KVM;
    sb = start(&small);
    NEED(sb);
    s = take(sb);
    memset(&t, 0, sizeof(t));
    t.h = hlsnap_sandbox_get_interrupt(sb);
    pthread_create(&thread, NULL, canceller, &t);
    for (i = 1; i <= N; i++) {
        uint64_t start_ns = now();
        hlsnap_result r;
        t.delay_ns = 2000000;
        store32(&t.go, i);
        r = call(sb, "spin", &forever, 1, NULL);
        start_ns = now() - start_ns;
        worst = start_ns > worst ? start_ns : worst;
        while (load32(&t.done) != i) sched_yield();
        CHECK(load32(&t.answer));
        CHECK_EQ(r, HLSNAP_ERR_CANCELLED);
        CHECK_EQ(restore(sb, s), HLSNAP_OK);
        CHECK_EQ(call_u64(sb, "count"), 7);
    }
    store32(&t.stop, 1);
    pthread_join(thread, NULL);
    CHECK(worst < 5000000000u);
    hlsnap_sandbox_destroy(sb);
    hlsnap_interrupt_release(t.h);
    hlsnap_snapshot_release(s);
}

/* From inside a host function: nothing of the guest runs after it. */
typedef struct inside { sandbox *sb; hlsnap_interrupt *h; snapshot *s; bool answer, destroy; hlsnap_result results[6]; } inside;
static void cancel_inside(void *user) {
    inside *in = (inside *)user;
    snapshot *s = NULL;
    uint64_t word = 0;
    if (!in->sb) return;
    in->results[0] = hlsnap_sandbox_call(in->sb, "count", HLSNAP_NO_ARGS, NULL, NULL);
    in->results[1] = hlsnap_sandbox_snapshot(in->sb, &s, NULL);
    in->results[2] = hlsnap_sandbox_restore(in->sb, in->s, NULL);
    in->results[3] = hlsnap_sandbox_read(in->sb, gva_of(in->sb, HLSNAP__HEAP), &word, 8, NULL);
    in->results[4] = hlsnap_sandbox_write(in->sb, gva_of(in->sb, HLSNAP__HEAP) + 8192, &word, 8, NULL);
    in->results[5] = (hlsnap_result)hlsnap_sandbox_get_state(in->sb);
    if (in->destroy) hlsnap_sandbox_destroy(in->sb);
    else in->answer = hlsnap_interrupt_cancel(in->h);
}

static void cancel_in_host_function(void) {
    options o = small;
    inside in;
    hook h = {cancel_inside, &in};
    sandbox *sb;
    NEED_KVM;
    memset(&in, 0, sizeof(in));
    o.hook = &h;
    sb = start(&o);
    NEED(sb);
    in.s = take(sb);
    in.h = hlsnap_sandbox_get_interrupt(sb);
    in.sb = sb;
    CHECK_EQ(call(sb, "host_void", HLSNAP_NO_ARGS, NULL), HLSNAP_ERR_CANCELLED);
    CHECK(in.answer);
    CHECK_EQ(in.results[0], HLSNAP_ERR_STATE);
    CHECK_EQ(in.results[1], HLSNAP_ERR_STATE);
    CHECK_EQ(in.results[2], HLSNAP_ERR_STATE);
    CHECK_EQ(in.results[3], HLSNAP_OK);
    CHECK_EQ(in.results[4], HLSNAP_OK);
    CHECK_EQ(in.results[5], HLSNAP_BUSY);
    CHECK(poisoned(sb));
    CHECK(!hlsnap_interrupt_cancel(in.h));
    CHECK_EQ(restore(sb, in.s), HLSNAP_OK);
    CHECK_EQ(call_u64(sb, "count"), 7);
    in.destroy = true;
    CHECK_EQ(call(sb, "host_void", HLSNAP_NO_ARGS, NULL), HLSNAP_ERR_CANCELLED); /* and sb is gone */
    CHECK(!hlsnap_interrupt_cancel(in.h));
    hlsnap_interrupt_release(in.h);
    hlsnap_snapshot_release(in.s);
}

/* ---- >>time-limits ---- */

static uint64_t cpu_now(void) {
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}
static int by_number(const void *a, const void *b) {
    uint64_t x, y;
    memcpy(&x, a, 8);
    memcpy(&y, b, 8);
    return x < y ? -1 : x > y;
}

/* The median is of CPU time: beside other work the scheduler adds a tick to every one of the calls or to none. */
static void time_limit(void) {
    enum { N = 100 };
    const uint64_t limit = 1000000;
    uint64_t used[N];
    hlsnap_value forever = hlsnap_u64(0), v = hlsnap_i32(5), out;
    signals before;
    options o = small;
    snapshot *s;
    sandbox *sb;
    int i;
    NEED_KVM;
    sb = start(&o);
    NEED(sb);
    s = take(sb);
    signals_get(&before);
    for (i = 0; i < N; i++) {
        const uint64_t from = now(), cpu = cpu_now();
        CHECK_EQ(call_limited(sb, "spin", &forever, 1, limit), HLSNAP_ERR_TIMEOUT);
        used[i] = cpu_now() - cpu;
        CHECK(now() - from >= limit);
        CHECK(poisoned(sb));
        CHECK(signals_same(&before));
        CHECK_EQ(restore(sb, s), HLSNAP_OK);
        CHECK_EQ(call_limited(sb, "echo_i32", &v, 1, 10000000000u), HLSNAP_OK);
        CHECK_EQ(call(sb, "echo_i32", &v, 1, &out), HLSNAP_OK);
    }
    qsort(used, N, sizeof(used[0]), by_number);
    printf("# a limit of 1 ms: median %.3f ms of CPU time, worst %.3f ms\n", (double)used[N / 2] * 1e-6, (double)used[N - 1] * 1e-6);
    if (!is_slow) CHECK(used[N / 2] <= 3 * limit);
    CHECK_EQ(call_limited(sb, "echo_i32", &v, 1, UINT64_MAX), HLSNAP_OK); /* no overflow of the deadline */
    CHECK_EQ(call_limited(sb, "echo_i32", &v, 1, 1), HLSNAP_ERR_TIMEOUT);
    hlsnap_sandbox_destroy(sb);
    o.timeout_ns = 2000000; /* the sandbox's own */
    sb = from(s, &o);
    NEED(sb);
    CHECK_EQ(call(sb, "spin", &forever, 1, NULL), HLSNAP_ERR_TIMEOUT);
    CHECK_EQ(restore(sb, s), HLSNAP_OK);
    v = hlsnap_u64(is_slow ? 1000 : 100000);
    CHECK_EQ(call_limited(sb, "spin", &v, 1, 10000000000u), HLSNAP_OK);
    hlsnap_sandbox_destroy(sb);
    hlsnap_snapshot_release(s);
}

/* Host functions count: the call ends when the function returns. */
static void sleep_inside(void *user) { nap_us(*(const uint64_t *)user); }
static void time_limit_in_host(void) {
    uint64_t us = 20000;
    hook h = {sleep_inside, &us};
    options o = small;
    snapshot *s;
    sandbox *sb;
    NEED_KVM;
    o.hook = &h;
    sb = start(&o);
    NEED(sb);
    s = take(sb);
    CHECK_EQ(call_limited(sb, "host_void", HLSNAP_NO_ARGS, 2000000), HLSNAP_ERR_TIMEOUT);
    CHECK_EQ(restore(sb, s), HLSNAP_OK);
    CHECK_EQ(call_limited(sb, "host_void", HLSNAP_NO_ARGS, 10000000000u), HLSNAP_OK);
    hlsnap_sandbox_destroy(sb);
    hlsnap_snapshot_release(s);
}

/* A sandbox called from another one's host function, endless: the outer limit ends both. */
typedef struct nested { sandbox *inner; hlsnap_result got; uint64_t inner_limit, rounds; } nested;
static void call_inner(void *user) {
    nested *n = (nested *)user;
    hlsnap_value v = hlsnap_u64(n->rounds);
    n->got = call_limited(n->inner, "spin", &v, 1, n->inner_limit);
}

/* A limit of CPU time: a guest that spins ends by it, one that waits does not, whatever the wall clock says. */
static void waits_long(void *user) {
    (void)user;
    usleep(is_slow ? 300000 : 60000);
}
static hlsnap_result call_with(sandbox *sb, const char *name, const hlsnap_value *args, size_t num, uint64_t wall_ns, uint64_t cpu_ns) {
    hlsnap_invocation one = HLSNAP_ZERO;
    if (hlsnap_sandbox_find(sb, name, NULL, &one.target, &last)) return last.code;
    one.args = args;
    one.num_args = num;
    one.timeout_ns = wall_ns;
    one.cpu_ns = cpu_ns;
    return hlsnap_sandbox_invoke(sb, &one, 1, NULL, NULL, &last);
}
static void cpu_limit(void) {
    const uint64_t ms = is_slow ? 10000000 : 1000000;
    hlsnap_value forever = hlsnap_u64(0), v = hlsnap_i32(5);
    hook h = {waits_long, NULL};
    signals before;
    options o = small;
    snapshot *s;
    sandbox *sb;
    int i;
    NEED_KVM;
    o.hook = &h;
    sb = start(&o);
    NEED(sb);
    s = take(sb);
    signals_get(&before);
    for (i = 0; i < (is_slow ? 3 : 20); i++) {
        const uint64_t cpu = cpu_now();
        CHECK_EQ(call_with(sb, "spin", &forever, 1, i % 2 ? 0 : 60000 * ms, 10 * ms), HLSNAP_ERR_TIMEOUT);
        CHECK(cpu_now() - cpu >= 10 * ms);
        CHECK(strstr(last.msg, "the CPU time limit of") != NULL);
        CHECK(poisoned(sb) && signals_same(&before));
        CHECK_EQ(restore(sb, s), HLSNAP_OK);
        CHECK_EQ(call_with(sb, "spin", &forever, 1, 5 * ms, 60000 * ms), HLSNAP_ERR_TIMEOUT); /* the other one */
        CHECK(strstr(last.msg, ": the time limit of") != NULL);
        CHECK_EQ(restore(sb, s), HLSNAP_OK);
        CHECK_EQ(call_with(sb, "echo_i32", &v, 1, 0, 60000 * ms), HLSNAP_OK);
        CHECK(signals_same(&before));
    }
    CHECK_EQ(call_with(sb, "host_void", HLSNAP_NO_ARGS, 0, 20 * ms), HLSNAP_OK); /* it waits for longer than that */
    CHECK_EQ(call_with(sb, "host_void", HLSNAP_NO_ARGS, 20 * ms, 20 * ms), HLSNAP_ERR_TIMEOUT);
    CHECK_EQ(restore(sb, s), HLSNAP_OK);
    CHECK_EQ(call_with(sb, "echo_i32", &v, 1, 0, 1), HLSNAP_ERR_TIMEOUT);
    CHECK_EQ(restore(sb, s), HLSNAP_OK);
    CHECK_EQ(call_with(sb, "echo_i32", &v, 1, 0, UINT64_MAX), HLSNAP_OK);
    hlsnap_sandbox_destroy(sb);
    hlsnap_snapshot_release(s);
}

static void nested_limits(void) {
    const uint64_t ms = is_slow ? 50000000 : 5000000;
    nested n;
    hook h = {call_inner, &n};
    options o = small;
    snapshot *s;
    sandbox *sb;
    int i;
    NEED_KVM;
    o.hook = &h;
    memset(&n, 0, sizeof(n));
    sb = start(&o);
    n.inner = start(&small);
    NEED(sb && n.inner ? sb : NULL);
    s = take(sb);
    for (i = 0; i < 30; i++) {
        n.got = HLSNAP_OK;
        n.rounds = 0;
        n.inner_limit = i % 3 == 0 ? 0 : i % 3 == 1 ? 1000 * ms : ms / 5;
        CHECK_EQ(call_limited(sb, "host_void", HLSNAP_NO_ARGS, i % 3 == 2 ? 2000 * ms : ms), i % 3 == 2 ? HLSNAP_OK : HLSNAP_ERR_TIMEOUT);
        CHECK_EQ(n.got, HLSNAP_ERR_TIMEOUT);
        CHECK(poisoned(n.inner));
        CHECK_EQ(poisoned(sb), i % 3 != 2);
        CHECK_EQ(restore(n.inner, s), HLSNAP_OK);
        CHECK_EQ(restore(sb, s), HLSNAP_OK);
        n.rounds = 100; /* short and in time: neither ends */
        n.inner_limit = 1000 * ms;
        CHECK_EQ(call_limited(sb, "host_void", HLSNAP_NO_ARGS, 1000 * ms), HLSNAP_OK);
        CHECK_EQ(n.got, HLSNAP_OK);
    }
    CHECK_EQ(hlsnap__kvm_num_armed, 0);
    hlsnap_sandbox_destroy(sb);
    hlsnap_sandbox_destroy(n.inner);
    hlsnap_snapshot_release(s);
}

/* Sandboxes with timers side by side on one thread: no limit of one ends the other. */
static void two_timers(void) {
    const uint64_t ms = is_slow ? 20000000 : 2000000;
    hlsnap_value forever = hlsnap_u64(0), v = hlsnap_i32(5);
    snapshot *s;
    sandbox *a, *b;
    int i;
    NEED_KVM;
    a = start(&small);
    NEED(a);
    s = take(a);
    b = from(s, &small);
    NEED(b);
    for (i = 0; i < 30; i++) {
        CHECK_EQ(call_limited(a, "spin", &forever, 1, ms / 2), HLSNAP_ERR_TIMEOUT);
        CHECK_EQ(call_limited(b, "echo_i32", &v, 1, 1000 * ms), HLSNAP_OK);
        CHECK_EQ(restore(a, s), HLSNAP_OK);
        CHECK_EQ(call_limited(b, "spin", &forever, 1, ms / 2), HLSNAP_ERR_TIMEOUT);
        CHECK_EQ(call(a, "echo_i32", &v, 1, NULL), HLSNAP_OK);
        CHECK_EQ(restore(b, s), HLSNAP_OK);
        CHECK_EQ(call_limited(b, "echo_i32", &v, 1, 1000 * ms), HLSNAP_OK);
    }
    hlsnap_sandbox_destroy(a);
    hlsnap_sandbox_destroy(b);
    hlsnap_snapshot_release(s);
}

typedef struct timed { sandbox *sb; hlsnap_result got; uint64_t limit; pid_t tid; } timed;
static void *timed_call(void *user) {
    timed *t = (timed *)user;
    hlsnap_value forever = hlsnap_u64(0);
    hlsnap_error err;
    hlsnap_invocation one = HLSNAP_ZERO;
    t->tid = (pid_t)syscall(SYS_gettid);
    t->got = hlsnap_sandbox_find(t->sb, "spin", NULL, &one.target, &err);
    one.args = &forever;
    one.num_args = 1;
    one.timeout_ns = t->limit;
    if (!t->got) t->got = hlsnap_sandbox_invoke(t->sb, &one, 1, NULL, NULL, &err);
    return NULL;
}

/* A timer belongs to a thread; another thread with the same number later is another thread. */
static void timer_after_thread_reuse(void) {
    hlsnap_interrupt *h;
    timed t;
    pthread_t thread;
    snapshot *s;
    pid_t first;
    int fd, tries;
    NEED_KVM;
    fd = open("/proc/sys/kernel/ns_last_pid", O_WRONLY | O_CLOEXEC);
    if (fd < 0) SKIP("needs root and /proc/sys/kernel/ns_last_pid");
    t.sb = start(&small);
    NEED(t.sb);
    s = take(t.sb);
    h = hlsnap_sandbox_get_interrupt(t.sb);
    t.limit = 2000000;
    pthread_create(&thread, NULL, timed_call, &t);
    pthread_join(thread, NULL);
    CHECK_EQ(t.got, HLSNAP_ERR_TIMEOUT);
    first = t.tid;
    for (t.tid = 0, tries = 0; tries < 200 && t.tid != first; tries++) {
        char text[16];
        uint64_t end;
        const int n = snprintf(text, sizeof(text), "%d", (int)first - 1);
        CHECK_EQ(restore(t.sb, s), HLSNAP_OK);
        nap_us(200); /* the last one must be gone */
        CHECK_EQ(pwrite(fd, text, (size_t)n, 0), n);
        pthread_create(&thread, NULL, timed_call, &t);
        for (end = now() + 2000000000u; hlsnap_sandbox_get_state(t.sb) != HLSNAP_POISONED && now() < end;) nap_us(100);
        if (!CHECK(now() < end)) hlsnap_interrupt_cancel(h);
        pthread_join(thread, NULL);
        CHECK_EQ(t.got, HLSNAP_ERR_TIMEOUT);
        if (test_bad) break;
    }
    if (t.tid != first) note("thread id", "never reused");
    close(fd);
    hlsnap_sandbox_destroy(t.sb);
    hlsnap_interrupt_release(h);
    hlsnap_snapshot_release(s);
}

/* ---- >>signals ---- */

static volatile sig_atomic_t alarms;
static uint64_t alarm_us;
/* The next one comes after one to sixteen times alarm_us: at a steady pace, on a busy machine, nothing would ever get done. */
static void alarm_next(void) {
    struct itimerval next;
    memset(&next, 0, sizeof(next));
    next.it_value.tv_usec = (suseconds_t)(alarm_us * (1 + ((uint32_t)alarms * 2654435761u >> 28)));
    setitimer(ITIMER_REAL, &next, NULL);
}
static void on_alarm(int n) {
    (void)n;
    alarms++;
    if (alarm_us) alarm_next();
}

static void with_alarms(uint64_t us, void (*run)(sandbox *, snapshot *)) {
    struct sigaction mine, old;
    struct itimerval off;
    snapshot *s;
    sandbox *sb = start(&small);
    NEED(sb);
    s = take(sb);
    memset(&mine, 0, sizeof(mine));
    memset(&off, 0, sizeof(off));
    mine.sa_handler = on_alarm;
    mine.sa_flags = SA_RESTART;
    alarms = 0;
    sigaction(SIGALRM, &mine, &old);
    alarm_us = us;
    alarm_next();
    run(sb, s);
    alarm_us = 0;
    setitimer(ITIMER_REAL, &off, NULL);
    sigaction(SIGALRM, &old, NULL);
    hlsnap_sandbox_destroy(sb);
    hlsnap_snapshot_release(s);
}

/* Handlers of the application run while the guest does, and the call goes on: one long enough that several came, however late. */
static void long_call(sandbox *sb, snapshot *s) {
    const uint64_t most = 30000000u * 64u;
    uint64_t n = is_slow ? 3000000 : 30000000;
    hlsnap_value v, a = VOID_VALUE, b = VOID_VALUE;
    int before;
    (void)s;
    do {
        v = hlsnap_u64(n);
        before = (int)alarms;
        CHECK_EQ(call(sb, "spin", &v, 1, &a), HLSNAP_OK);
        if ((int)alarms - before > 2) break;
    } while ((n *= 2) <= most && !test_bad);
    CHECK((int)alarms - before > 2);
    CHECK_EQ(call(sb, "spin", &v, 1, &b), HLSNAP_OK);
    CHECK_EQ(a.as.u64, b.as.u64);
}
static void alarm_handler(void) {
    NEED_KVM;
    with_alarms(200, long_call);
}

static void storm(sandbox *sb, snapshot *s) {
    const uint64_t end = now() + 1000000000u;
    hlsnap_value v, out, forever = hlsnap_u64(0);
    uint64_t calls = 0;
    while (now() < end && test_bad < 5) {
        v = hlsnap_i32(7);
        CHECK_EQ(call(sb, "host_loop", &v, 1, &out), HLSNAP_OK);
        CHECK_EQ(out.as.i32, 21);
        CHECK_EQ(call(sb, "count", HLSNAP_NO_ARGS, &out), HLSNAP_OK);
        if (++calls % 16 == 0) CHECK_EQ(call_limited(sb, "spin", &forever, 1, is_slow ? 50000000 : 1000000), HLSNAP_ERR_TIMEOUT);
        if (calls % 16 == 0 || calls % 3 == 0) CHECK_EQ(restore(sb, s), HLSNAP_OK);
    }
    printf("# storm: %llu calls, %d alarms\n", (unsigned long long)calls, (int)alarms);
    CHECK(alarms > 10 && calls > 0);
}
static void alarm_storm(void) {
    NEED_KVM;
    with_alarms(is_slow ? 1000 : 20, storm);
}

static void handlers_inside(void *user) {
    signals s;
    signals_get(&s);
    CHECK(handlers_same((const signals *)user, &s));
}

/* Blocked and pending signals of the thread stay blocked and pending, also the cancel signal itself; no handler and no flag of
   any signal changes, not even during a call. */
static void signals_kept(void) {
    hook during;
    hlsnap_value v = hlsnap_i32(5), forever = hlsnap_u64(0), out;
    struct timespec zero = {0, 0};
    signals before;
    sigset_t set, old;
    options o = small;
    snapshot *s;
    sandbox *sb;
    NEED_KVM;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    sigaddset(&set, SIGRTMIN + 7);
    pthread_sigmask(SIG_BLOCK, &set, &old);
    pthread_kill(pthread_self(), SIGUSR1); /* pending for good: must not end any call */
    o.cancel_signal = SIGRTMIN + 7;        /* blocked by the application already */
    during.fn = handlers_inside;
    during.user = &before;
    o.hook = &during;
    signals_get(&before);
    sb = start(&o);
    NEED(sb);
    s = take(sb);
    CHECK_EQ(call(sb, "echo_i32", &v, 1, &out), HLSNAP_OK);
    CHECK(signals_same(&before));
    CHECK_EQ(call_limited(sb, "spin", &forever, 1, 2000000), HLSNAP_ERR_TIMEOUT);
    CHECK(signals_same(&before));
    CHECK_EQ(restore(sb, s), HLSNAP_OK);
    CHECK_EQ(call_limited(sb, "echo_i32", &v, 1, 10000000000u), HLSNAP_OK);
    CHECK(signals_same(&before));
    CHECK_EQ(call_limited(sb, "host_void", HLSNAP_NO_ARGS, 10000000000u), HLSNAP_OK);
    CHECK(signals_same(&before));
    hlsnap_sandbox_destroy(sb);
    o.cancel_signal = 0;
    sb = from(s, &o);
    NEED(sb);
    CHECK_EQ(call(sb, "echo_i32", &v, 1, &out), HLSNAP_OK);
    CHECK_EQ(sigtimedwait(&set, NULL, &zero), SIGUSR1);
    pthread_sigmask(SIG_SETMASK, &old, NULL); /* another mask from now on */
    signals_get(&before);
    CHECK_EQ(call_limited(sb, "spin", &forever, 1, 2000000), HLSNAP_ERR_TIMEOUT);
    CHECK(signals_same(&before));
    hlsnap_sandbox_destroy(sb);
    hlsnap_snapshot_release(s);
}

/* ---- >>reset-proof: after each restore everything is as the snapshot has it ---- */

#define MAX_SHOTS 14
typedef struct shot { snapshot *s; uint8_t *shadow; uint32_t guest; } shot; /* shadow: all stored regions, one after the other */
typedef struct world {
    sandbox *sb[2];
    shot shots[MAX_SHOTS];
    uint32_t num_shots, num_guests;
    guest_addresses at;        /* the same program in all guests */
    uint64_t next_entry, timeout_ns;
    uint8_t id[16];            /* identity of the last start of any sandbox */
    probe_dump base[3];        /* per guest: the registers at the first instruction of a sandbox that was never used */
    struct kvm_sregs sregs[3];
    uint64_t msrs[3][8];
    bool has_base[3];
    uint32_t ops, restores, probes, poisons, takes, systems, images;
    char history[16][64];      /* the last operations, for a failure's report */
} world;

/* Number i of all that a restore puts back: regions, then maps. */
typedef struct stored { uint64_t gva, pages; const char *name; } stored;
static bool stored_at(const sandbox *sb, uint32_t i, stored *out) {
    const hlsnap__layout *l = &sb->memory.layout;
    const hlsnap__mapped *x = &sb->memory.maps[i < l->num_regions ? 0 : i - l->num_regions];
    if (i >= l->num_regions + sb->memory.num_maps) return false;
    out->gva = i < l->num_regions ? l->regions[i].gva : x->map.gva;
    out->pages = i < l->num_regions ? l->regions[i].pages : x->pages;
    out->name = i < l->num_regions ? hlsnap__kind_names[l->regions[i].kind] : x->map.name;
    if (i < l->num_regions ? !hlsnap__kind_stored(l->regions[i].kind) : !hlsnap__map_stored(&x->map)) out->pages = 0;
    return true;
}

static size_t stored_size(const sandbox *sb) {
    size_t n = 0;
    stored part;
    uint32_t i;
    for (i = 0; stored_at(sb, i, &part); i++) n += (size_t)part.pages * 4096;
    return n;
}

static void stored_read(sandbox *sb, uint8_t *to) {
    stored part;
    uint32_t i;
    for (i = 0; stored_at(sb, i, &part); i++) {
        CHECK_EQ(hlsnap_sandbox_read(sb, part.gva, to, (size_t)part.pages * 4096, NULL), HLSNAP_OK);
        to += part.pages * 4096;
    }
}

/* Guest memory against a shadow copy; says where the first difference lies. */
static bool stored_same(sandbox *sb, const uint8_t *shadow) {
    static uint8_t page[4096];
    stored part;
    uint32_t i;
    uint64_t k, j;
    for (i = 0; stored_at(sb, i, &part); i++) {
        for (k = 0; k < part.pages; k++, shadow += 4096) {
            if (hlsnap_sandbox_read(sb, part.gva + k * 4096, page, 4096, NULL)) return false;
            if (memcmp(page, shadow, 4096) == 0) continue;
            for (j = 0; page[j] == shadow[j]; j++) { }
            printf("# %s page %llu, byte %llu: 0x%02x, not 0x%02x\n", part.name, (unsigned long long)k,
                   (unsigned long long)j, page[j], shadow[j]);
            return false;
        }
    }
    return true;
}

static bool mailbox_zero(sandbox *sb) {
    const hlsnap__region *r = hlsnap__layout_find(&sb->memory.layout, HLSNAP__MAILBOX);
    static uint8_t page[4096];
    uint64_t k;
    for (k = 0; k < r->pages; k++)
        if (hlsnap_sandbox_read(sb, r->gva + k * 4096, page, 4096, NULL) || !hlsnap__all_zero(page, 4096)) return false;
    return true;
}

static void history_add(world *w, const char *what, uint64_t a, uint64_t b) {
    snprintf(w->history[w->ops % 16], sizeof(w->history[0]), "%u %s 0x%llx 0x%llx", w->ops, what, (unsigned long long)a, (unsigned long long)b);
}

/* ---- >>probe: registers at the guest's first instruction, before any compiled code ---- */

static void vcpu_state(const sandbox *sb, struct kvm_sregs *sregs, uint64_t *msrs) {
    static const uint32_t numbers[8] = {0xc0000081, 0xc0000082, 0xc0000083, 0xc0000084, 0xc0000102, 0x174, 0x175, 0x176}; /* STAR .. KERNEL_GS_BASE, SYSENTER */
    struct { uint32_t nmsrs, pad; struct kvm_msr_entry rows[8]; } m; /* kvm_msrs */
    struct kvm_debugregs d;
    struct kvm_vcpu_events e;
    struct kvm_xcrs x;
    int i;
    memset(sregs, 0, sizeof(*sregs));
    memset(&m, 0, sizeof(m));
    CHECK_EQ(hlsnap__ioctl(sb->shell->vcpu, KVM_GET_SREGS, (uintptr_t)sregs), 0);
    m.nmsrs = 8;
    for (i = 0; i < 8; i++) m.rows[i].index = numbers[i];
    if (hlsnap__ioctl(sb->shell->vcpu, KVM_GET_MSRS, (uintptr_t)&m) != 8) note("MSRs", "not all can be read");
    for (i = 0; i < 8; i++) msrs[i] = m.rows[i].data;
    if (!sb->guest->syscall) CHECK_EQ(msrs[1], HLSNAP__SYSCALL_GVA);
    else CHECK(msrs[1] == HLSNAP__SYS_AT(HLSNAP__SYS_STUBS) + HLSNAP__STUB_SYSCALL || msrs[1] == HLSNAP__SYS_AT(HLSNAP__SYS_GATE) + HLSNAP__GATE_SYSCALL);
    CHECK_EQ(sregs->efer & 1, sb->guest->syscall != 0);
    CHECK_EQ(sregs->cr4 >> 16 & 1, sb->guest->syscall && sb->shell->fsgsbase);
    CHECK_EQ(hlsnap__ioctl(sb->shell->vcpu, KVM_GET_DEBUGREGS, (uintptr_t)&d), 0);
    CHECK(d.db[0] == 0 && d.db[1] == 0 && d.db[2] == 0 && d.db[3] == 0 && (d.dr7 & ~0x400ull) == 0);
    CHECK_EQ(hlsnap__ioctl(sb->shell->vcpu, KVM_GET_VCPU_EVENTS, (uintptr_t)&e), 0);
    CHECK(!e.exception.injected && !e.exception.pending && !e.interrupt.injected && !e.nmi.injected && !e.nmi.pending);
    if (hlsnap__ioctl(sb->shell->vcpu, KVM_GET_XCRS, (uintptr_t)&x) == 0 && x.nr_xcrs) CHECK_EQ(x.xcrs[0].value & ~0xe7ull, 0);
    sregs->cr2 = 0; /* where the last page fault was; the guest cannot read it */
}

static void vector_state_print(const uint8_t *a, const uint8_t *b, size_t n) {
    size_t i;
    for (i = 0; i < n && a[i] == b[i]; i++) { }
    if (i < n) printf("# vector state differs at byte %zu: 0x%02x, not 0x%02x\n", i, a[i], b[i]);
}

/* Runs from the probe; the dump is read whatever became of the call. */
static bool probe_run(sandbox *sb, const guest_addresses *at, probe_dump *to) {
    static const probe_dump zero;
    const uint64_t entry = sb->guest->entry, limit = sb->timeouts[HLSNAP__WALL];
    static uint8_t flag;
    if (hlsnap_sandbox_write(sb, at->dump, &zero, sizeof(zero), NULL)) return false;
    flag = sb->shell->sregs.cr4 >> 18 & 1; /* OSXSAVE */
    if (hlsnap_sandbox_write(sb, at->xsave_flag, &flag, 1, NULL)) return false;
    sb->guest->entry = at->probe;
    sb->timeouts[HLSNAP__WALL] = 2000000000; /* what follows the probe may loop, if this snapshot is of a guest that was overwritten */
    call(sb, "nop", HLSNAP_NO_ARGS, NULL);
    sb->timeouts[HLSNAP__WALL] = limit;
    sb->guest->entry = entry;
    memcpy(to, sb->memory.mem + (at->dump - sb->memory.layout.base), sizeof(*to));
    return to->magic == PROBE_MAGIC;
}

static void probe_check(world *w, sandbox *sb, uint32_t guest) {
    static probe_dump d;
    struct kvm_sregs sregs;
    uint64_t msrs[8];
    size_t i;
    if (!CHECK(probe_run(sb, &w->at, &d))) {
        printf("# probe: %s\n", last.msg);
        return;
    }
    w->probes++;
    if (!sb->shell) return;
    vcpu_state(sb, &sregs, msrs);
    memset(d.xsave + 512, 0, 8); /* XSTATE_BV: which components are in use, not what they hold */
    if (!w->has_base[guest]) {
        w->base[guest] = d;
        w->sregs[guest] = sregs;
        memcpy(w->msrs[guest], msrs, sizeof(msrs));
        w->has_base[guest] = true;
    }
    for (i = 0; i < 16; i++) CHECK_EQ(d.gpr[i], w->base[guest].gpr[i]);
    CHECK_EQ(d.flags & ~0x44ull, w->base[guest].flags & ~0x44ull); /* ZF and PF are the gate's, where it clears vector state */
    CHECK_EQ(d.fs0, gva_of(sb, HLSNAP__IDENTITY));
    for (i = 0; i < 6; i++) CHECK_EQ(d.segments[i], w->base[guest].segments[i]);
    if (!CHECK(memcmp(d.xsave, w->base[guest].xsave, sizeof(d.xsave)) == 0)) vector_state_print(d.xsave, w->base[guest].xsave, sizeof(d.xsave));
    CHECK(poisoned(sb) || memcmp(&sregs, &w->sregs[guest], sizeof(sregs)) == 0);
    CHECK(memcmp(msrs, w->msrs[guest], sizeof(msrs)) == 0);
}

/* ---- >>reset-operations ---- */

static const uint32_t writable_kinds[] = {HLSNAP__DATA, HLSNAP__TLS, HLSNAP__HEAP, HLSNAP__STACK, HLSNAP__MAILBOX};

/* An address the guest may write. Mostly not where its own frames and the runtime's state are, so that calls go on working. */
static uint64_t random_place(const sandbox *sb, uint64_t *room) {
    const hlsnap__layout *l = &sb->memory.layout;
    const bool wild = below(10) == 0;
    if (sb->memory.num_maps && below(3) == 0) {
        const hlsnap__mapped *x = &sb->memory.maps[below(sb->memory.num_maps)];
        const uint64_t at = below(x->pages * 4096);
        *room = x->pages * 4096 - at;
        if (x->map.mode == HLSNAP_MAP_PRIVATE) return x->map.gva + at;
    }
    for (;;) {
        const hlsnap__region *r = &l->regions[below(l->num_regions)];
        uint64_t size = r->pages * 4096, from = 0;
        size_t i;
        for (i = 0; i < HLSNAP_COUNT(writable_kinds) && writable_kinds[i] != r->kind; i++) { }
        if (i == HLSNAP_COUNT(writable_kinds)) continue;
        if (!wild && r->kind == HLSNAP__STACK) size -= 8192;
        if (!wild && r->kind == HLSNAP__HEAP) from = 32768;
        if (!wild && r->kind == HLSNAP__DATA) from = size > 40960 ? 8192 : size / 2;
        from += below(size - from);
        *room = size - from;
        return r->gva + from;
    }
}

static void op_poke(world *w, sandbox *sb) {
    uint64_t room, at = random_place(sb, &room);
    hlsnap_value v[4];
    if (below(3)) {
        v[0] = hlsnap_u64(at), v[1] = hlsnap_u64(rnd()), v[2] = hlsnap_u32((uint32_t)below(9));
        history_add(w, "poke", at, v[1].as.u64);
        call(sb, "poke", v, 3, NULL);
        return;
    }
    v[0] = hlsnap_u64(at), v[2] = hlsnap_u64(rnd()), v[3] = hlsnap_u32(below(2) ? 4096 : 1);
    v[1] = hlsnap_u64(1 + below(room < 65536 || v[3].as.u32 > 1 ? room : 65536));
    history_add(w, "fill", at, v[1].as.u64);
    call(sb, "fill", v, 4, NULL);
}

/* true: the guest's code or constants were changed */
static bool op_host_write(world *w, sandbox *sb) {
    static uint8_t bytes[8192];
    const hlsnap__layout *l = &sb->memory.layout;
    const hlsnap__region *r = &l->regions[below(l->num_regions)];
    uint64_t room = r->pages * 4096, from = below(room), n = 1 + below(room - from < 8192 ? room - from : 8192);
    size_t i;
    bool fixed = !hlsnap__kind_writable(r->kind);
    if (fixed && below(8)) return false;
    if (r->kind != HLSNAP__DATA && !fixed) from = random_place(sb, &room), n = 1 + below(room < 8192 ? room : 8192), from -= r->gva; /* of a map, too */
    for (i = 0; i < n; i++) bytes[i] = (uint8_t)rnd();
    history_add(w, "host write", r->gva + from, n);
    CHECK_EQ(hlsnap_sandbox_write(sb, r->gva + from, bytes, (size_t)n, NULL), r->kind == HLSNAP__IDENTITY ? HLSNAP_ERR_ARG : HLSNAP_OK);
    return fixed || r->kind == HLSNAP__DATA;
}

static void op_fault(world *w, sandbox *sb) {
    const fault_row *row = &fault_rows[below(HLSNAP_COUNT(fault_rows))];
    hlsnap_value v[2];
    v[0] = hlsnap_u32(row->kind), v[1] = hlsnap_u64(place_of(sb, &w->at, row));
    history_add(w, "fault", row->kind, v[1].as.u64);
    call(sb, "fault", v, 2, NULL);
}

static void op_leave(world *w, sandbox *sb) {
    hlsnap_value v = hlsnap_u32((uint32_t)below(2048));
    if (below(20)) v.as.u32 &= ~(uint32_t)LEAVE_LOOP;
    history_add(w, "leave", v.as.u32, 0);
    CHECK(call_limited(sb, "leave", &v, 1, 2000000) != HLSNAP_OK);
    CHECK(poisoned(sb) || last.code == HLSNAP_ERR_STATE);
}

/* A system call, in every way to make and to answer one. */
static void op_system(world *w, sandbox *sb) {
    hlsnap_value v = hlsnap_u32((uint32_t)below(0x2000));
    hlsnap_result r;
    if (below(20)) v.as.u32 &= ~(uint32_t)SYSTEM_LOOP;
    if (below(2)) v.as.u32 &= ~(uint32_t)(SYSTEM_LEAVE | SYSTEM_FAULT | SYSTEM_LOOP | SYSTEM_TF);
    history_add(w, "system", v.as.u32, 0);
    r = call_limited(sb, "system", &v, 1, is_slow ? 50000000 : 2000000);
    CHECK(r == HLSNAP_OK || r == HLSNAP_ERR_FAULT || r == HLSNAP_ERR_PROTOCOL || r == HLSNAP_ERR_TIMEOUT || r == HLSNAP_ERR_ABORT ||
          r == HLSNAP_ERR_EXIT);
    w->systems++;
}

/* A range of anything that the guest can read, shown in its heap; above what its runtime has there. */
static void op_image(world *w, sandbox *sb) {
    const hlsnap__layout *l = &sb->memory.layout;
    const hlsnap__region *heap = hlsnap__layout_find(l, HLSNAP__HEAP), *r = below(2) ? heap : &l->regions[below(l->num_regions)];
    const uint64_t pages = 1 + below(below(2) ? 20 : 4), first = 8 + below(heap->pages - 8);
    hlsnap_value v[5], out;
    v[4] = hlsnap_u64(below(2));
    v[1] = hlsnap_u64(below(8) ? r->gva + below(r->pages) * 4096 : 0), v[2] = hlsnap_u64(heap->gva + first * 4096);
    v[3] = hlsnap_u64(pages * 4096), v[0] = hlsnap_u32(IMAGE_ASK);
    history_add(w, v[4].as.u64 ? "image, once" : "image", v[1].as.u64, v[2].as.u64 | pages);
    if (call(sb, "pages", v, 5, &out)) return;
    CHECK(out.as.u64 == HLSNAP_OK || out.as.u64 == HLSNAP_ERR_ARG || out.as.u64 == HLSNAP_ERR_LIMIT);
    w->images += out.as.u64 == HLSNAP_OK;
}

static void op_call(world *w, sandbox *sb) {
    static const char *const names[] = {"count", "tls", "random", "generation", "nop"};
    hlsnap_value v[2];
    const uint64_t which = below(10);
    history_add(w, "call", which, 0);
    if (which < 5) call(sb, names[which], HLSNAP_NO_ARGS, NULL);
    else if (which < 6) v[0] = hlsnap_u32((uint32_t)below(60)), call(sb, "heap", v, 1, NULL);
    else if (which < 7) v[0] = hlsnap_i32((int32_t)below(4)), call(sb, "host_loop", v, 1, NULL);
    else if (which < 8) v[0] = hlsnap_i32(1), v[1] = hlsnap_str("x"), call(sb, below(4) ? "fail" : "abort", v, 2, NULL);
    else if (which < 9) v[0] = hlsnap_u32((uint32_t)below(PORT_NUM)), v[1] = hlsnap_u32(0xe0 + (uint32_t)below(2)), call(sb, "port", v, 2, NULL);
    else v[0] = hlsnap_u32((uint32_t)below(32)), call(sb, "dirty", v, 1, NULL);
}

static void op_take(world *w, sandbox *sb, uint32_t guest) {
    shot *to = w->num_shots < MAX_SHOTS ? &w->shots[w->num_shots] : &w->shots[w->num_guests + below(MAX_SHOTS - w->num_guests)];
    uint8_t *shadow = (uint8_t *)malloc(stored_size(sb));
    history_add(w, "take", (uint64_t)(to - w->shots), guest);
    if (shadow) stored_read(sb, shadow);
    if (to == &w->shots[w->num_shots]) w->num_shots++;
    else hlsnap_snapshot_release(to->s), free(to->shadow);
    to->s = take(sb);
    to->shadow = shadow;
    to->guest = guest;
    w->takes++;
    CHECK(stored_same(sb, shadow)); /* taking one changes nothing */
}

/* The heart: any state -> restore -> all of it is the snapshot's. */
static void op_restore(world *w, sandbox *sb, const shot *to) {
    uint8_t page[4096], *id = page + HLSNAP_ABI_IDENTITY_OFFSET + offsetof(hlsnap_abi_identity, id);
    w->restores++;
    w->poisons += poisoned(sb);
    if (!CHECK_EQ(restore(sb, to->s), HLSNAP_OK)) return;
    CHECK(stored_same(sb, to->shadow));
    CHECK(mailbox_zero(sb));
    CHECK_EQ(hlsnap_sandbox_read(sb, gva_of(sb, HLSNAP__IDENTITY), page, sizeof(page), NULL), HLSNAP_OK);
    CHECK(memcmp(id, w->id, 16) != 0);
    memcpy(w->id, id, 16);
    if (below(2)) {
        probe_check(w, sb, to->guest);
        if (below(2)) return;
        CHECK_EQ(restore(sb, to->s), HLSNAP_OK);
        CHECK(stored_same(sb, to->shadow));
    }
}

/* A sibling straight from a snapshot. */
static void op_clone(world *w, const options *o) {
    const shot *at = &w->shots[below(w->num_shots)];
    sandbox *sb = from(at->s, o);
    history_add(w, "clone", (uint64_t)(at - w->shots), 0);
    if (!sb) return;
    CHECK(stored_same(sb, at->shadow));
    CHECK(mailbox_zero(sb));
    probe_check(w, sb, at->guest);
    hlsnap_sandbox_destroy(sb);
}

/* Two guests of one program: alike, with another heap, and a second copy of the first, whose layers are other ones. */
static bool world_open(world *w, const options *o) {
    uint32_t g;
    for (g = 0; g < 3; g++) {
        options mine = *o;
        sandbox *sb;
        mine.heap = g == 1 ? 640 << 10 : o->heap;
        sb = start(&mine);
        if (!CHECK(sb != NULL)) return false;
        if (!CHECK(addresses_of(sb, &w->at))) return false;
        op_take(w, sb, g);
        w->num_guests++;
        if (g < 2) w->sb[g] = sb;
        else hlsnap_sandbox_destroy(sb);
        sb = from(w->shots[g].s, o); /* never used before: what it finds in its registers is right by definition */
        if (!CHECK(sb != NULL)) return false;
        probe_check(w, sb, g);
        hlsnap_sandbox_destroy(sb);
    }
    return true;
}

static void world_step(world *w, const options *o, uint32_t *guest, bool *tainted) {
    const uint32_t which = (uint32_t)below(2);
    sandbox *sb = w->sb[which];
    const uint64_t dice = below(100);
    if (dice >= 98) op_clone(w, o);
    else if (!ready(sb) || dice < 25) {
        const uint32_t to = (uint32_t)below(w->num_shots);
        history_add(w, which ? "restore b" : "restore a", to, poisoned(sb));
        op_restore(w, sb, &w->shots[to]);
        guest[which] = w->shots[to].guest;
        tainted[which] = false;
    } else if (o->images && below(3) == 0) op_image(w, sb);
    else if (dice < 45) op_poke(w, sb);
    else if (dice < 55) tainted[which] = op_host_write(w, sb) || tainted[which];
    else if (sb->guest->syscall && below(3) == 0) op_system(w, sb);
    else if (dice < 65) op_fault(w, sb);
    else if (dice < 75) op_leave(w, sb);
    else if (dice < 92) op_call(w, sb);
    else if (!tainted[which]) op_take(w, sb, guest[which]);
}

static void world_run(const options *of, uint64_t ops) {
    static world w;
    options o = *of;
    uint32_t guest[2] = {0, 1}, i;
    bool tainted[2] = {false, false};
    const int bad = test_bad;
    memset(&w, 0, sizeof(w));
    o.timeout_ns = is_slow ? 1000000000 : 20000000; /* a guest whose code or stack was overwritten may loop */
    rnd_state = seed;
    if (world_open(&w, &o))
        for (w.ops = 0; w.ops < ops && test_bad == bad; w.ops++) world_step(&w, &o, guest, tainted);
    printf("# SEED=0x%llx: %u operations, %u restores (%u from poisoned), %u probes, %u snapshots, %u system calls, %u images\n", (unsigned long long)seed, w.ops, w.restores, w.poisons,
           w.probes, w.takes, w.systems, w.images);
    for (i = 0; i < 16 && test_bad != bad; i++) printf("# %s\n", w.history[(w.ops + i) % 16]);
    for (i = 0; i < w.num_shots; i++) hlsnap_snapshot_release(w.shots[i].s), free(w.shots[i].shadow);
    hlsnap_sandbox_destroy(w.sb[0]);
    hlsnap_sandbox_destroy(w.sb[1]);
}

static void reset_proof(void) {
    NEED_KVM;
    world_run(&small, env_number("OPS", env_number("LONG", 0) ? 100000 : is_slow ? 300 : 5000));
}

/* The same with pages made ready at each start, on a vCPU that code of the host's ran on. */
static void reset_proof_learned(void) {
    options o = small;
    NEED_KVM;
    o.prefault = HLSNAP_PREFAULT_LEARN;
    world_run(&o, env_number("OPS", env_number("LONG", 0) ? 50000 : is_slow ? 200 : 3000));
}

/* And where the heap has huge pages, of which parts are given back. */
static void reset_proof_huge(void) {
    options o = small;
    NEED_KVM;
    o.heap = 4 << 20;
    o.huge = true;
    world_run(&o, env_number("OPS", env_number("LONG", 0) ? 10000 : is_slow ? 50 : 500));
}

/* What a vCPU counts under a name; -1: this kernel does not say (before Linux 5.14). */
static int64_t vcpu_count(const sandbox *sb, const char *name) {
    struct { uint32_t flags, name_size, num, id_at, descs_at, data_at; } head;
    const int fd = ioctl(sb->shell->vcpu, _IO(0xae, 0xce) /* KVM_GET_STATS_FD */);
    uint8_t desc[256];
    int64_t value = -1;
    uint32_t i, at;
    if (fd < 0 || pread(fd, &head, sizeof(head), 0) != sizeof(head) || head.name_size > 200) head.num = 0;
    for (i = 0; fd >= 0 && i < head.num; i++) {
        const size_t size = 16 + head.name_size;
        if (pread(fd, desc, size, (off_t)(head.descs_at + i * size)) != (ssize_t)size || strcmp((char *)desc + 16, name) != 0) continue;
        memcpy(&at, desc + 8, 4);
        if (pread(fd, &value, 8, head.data_at + at) != 8) value = -1;
    }
    if (fd >= 0) close(fd);
    return value;
}

/* The first call of one that starts from what another one learned finds all pages there: no fault of the thread's, and, where KVM
   counts them, none of the vCPU's. */
static void prefaulted(void) {
    static const char *const names[] = {"off", "learn"};
    int64_t faults[2], counted[2];
    int i;
    NEED_KVM;
    for (i = 0; i < 2; i++) {
        options o = small;
        struct rusage before, after;
        hlsnap_stats stats;
        hlsnap_value v[4];
        sandbox *sb;
        snapshot *s;
        o.heap = 4 << 20;
        o.prefault = i ? HLSNAP_PREFAULT_LEARN : HLSNAP_PREFAULT_OFF;
        sb = start(&o);
        NEED(sb);
        s = take(sb);
        hlsnap_sandbox_destroy(sb);
        sb = from(s, &o);
        NEED(sb);
        v[0] = hlsnap_u64(gva_of(sb, HLSNAP__HEAP) + (1 << 20)), v[1] = hlsnap_u64(1 << 20), v[2] = hlsnap_u64(7), v[3] = hlsnap_u32(4096);
        CHECK_EQ(call(sb, "fill", v, 4, NULL), HLSNAP_OK);
        CHECK_EQ(restore(sb, s), HLSNAP_OK);
        hlsnap_sandbox_destroy(sb);
        sb = from(s, &o);
        NEED(sb);
        hlsnap_sandbox_get_stats(sb, &stats);
        CHECK(i ? stats.prefaulted_pages >= 256 && stats.prefaulted_pages < 290 : stats.prefaulted_pages == 0);
        counted[i] = vcpu_count(sb, "pf_taken");
        getrusage(1 /* RUSAGE_THREAD */, &before);
        CHECK_EQ(call(sb, "fill", v, 4, NULL), HLSNAP_OK);
        getrusage(1 /* RUSAGE_THREAD */, &after);
        faults[i] = after.ru_minflt - before.ru_minflt;
        if (counted[i] >= 0) counted[i] = vcpu_count(sb, "pf_taken") - counted[i];
        printf("# %s: first call: %lld faults of the thread, %lld of the vCPU (-1: not counted)\n", names[i], (long long)faults[i], (long long)counted[i]);
        CHECK_EQ(restore(sb, s), HLSNAP_OK);
        CHECK(hlsnap__all_zero(hlsnap__memory_at(&sb->memory, hlsnap__gva_page(&sb->memory.layout, v[0].as.u64)), 256 * 4096));
        CHECK_EQ(call(sb, "nop", HLSNAP_NO_ARGS, NULL), HLSNAP_OK);
        hlsnap_sandbox_destroy(sb);
        hlsnap_snapshot_release(s);
    }
    CHECK(faults[0] >= 250 && faults[1] < 10);
    CHECK(counted[0] < 30 || counted[1] < 5);
}

/* The same with maps: pages of files and copies of them that the guest changes. */
static void reset_proof_maps(void) {
    hlsnap_map maps[4];
    options o = small;
    char path[64];
    FILE *f;
    int i;
    NEED_KVM;
    snprintf(path, sizeof(path), "/tmp/hlsnap-proof-%d", (int)getpid());
    f = fopen(path, "w");
    for (i = 0; f && i < 40 * 4096 - 100; i++) fputc(1 + i % 250, f);
    if (f) fclose(f);
    memset(maps, 0, sizeof(maps));
    for (i = 0; i < 4; i++) {
        static const char *const names[] = {"private", "captured", "read", "constant"};
        maps[i].name = names[i];
        maps[i].path = path;
        maps[i].mode = i < 2 ? HLSNAP_MAP_PRIVATE : HLSNAP_MAP_READ;
        maps[i].capture = i % 2;
    }
    o.maps = maps;
    o.num_maps = 4;
    world_run(&o, env_number("OPS", env_number("LONG", 0) ? 50000 : is_slow ? 200 : 3000));
    unlink(path);
}

/* The same with images: ranges of the guest's memory that it has shown at other places. */
static void reset_proof_images(void) {
    options o = small;
    NEED_KVM;
    o.images = true;
    world_run(&o, env_number("OPS", env_number("LONG", 0) ? 50000 : is_slow ? 200 : 3000));
}

/* The same of guests whose system calls are answered: the state that a vCPU has for it, and that of who answers. */
static void reset_proof_system_calls(void) {
    options o = small;
    NEED_KVM;
    if (access(syscall_file, R_OK)) SKIP("no guest_kvm_syscall.elf in GUEST_DIR");
    o.system_calls = true;
    world_run(&o, env_number("OPS", env_number("LONG", 0) ? 50000 : is_slow ? 300 : 3000));
}

/* And of a Linux program: a libc's state, and the personality's. */
static void reset_proof_libc(void) {
    options o = small;
    NEED_KVM;
    if (access(libc_file, R_OK)) SKIP("no guest_kvm_libc.elf in GUEST_DIR");
    o.libc = true;
    o.heap = 1 << 20;
    o.stack = 128 << 10;
    world_run(&o, env_number("OPS", env_number("LONG", 0) ? 50000 : is_slow ? 200 : 3000));
}

/* ---- >>quirks: the slower way, as another CPU would take it ---- */

static void quirk(uint32_t bits) {
    const hlsnap_hypervisor *usual = hv;
    hlsnap_hypervisor copy = *hlsnap_kvm();
    copy.quirks = bits;
    hv = &copy;
    types();
    host_calls();
    faults();
    ports();
    pending_completion();
    time_limit_in_host();
    world_run(&small, env_number("LONG", 0) ? 20000 : is_slow ? 50 : 500);
    hv = usual;
}
static void quirk_no_gate_scrub(void) {
    NEED_KVM;
    quirk(HLSNAP__KVM_NO_GATE_SCRUB);
}

/* ---- >>tracking: which pages are private, and who made them so ---- */

/* Sum of a field of smaps over the window, KiB; -1 where there is no smaps. */
static long smaps_kib(const sandbox *sb, const char *field) {
    const uint64_t from_at = (uint64_t)(uintptr_t)sb->memory.mem, to_at = from_at + sb->memory.layout.pages * 4096;
    FILE *f = fopen("/proc/self/smaps", "r");
    bool inside_window = false;
    char line[512];
    long sum = 0;
    if (!f) return -1;
    while (fgets(line, sizeof(line), f)) {
        unsigned long long a, b;
        if (sscanf(line, "%llx-%llx ", &a, &b) == 2) inside_window = a >= from_at && b <= to_at;
        else if (inside_window && strncmp(line, field, strlen(field)) == 0) sum += strtol(line + strlen(field), NULL, 10);
    }
    fclose(f);
    return sum;
}

/* khugepaged must not turn tracked memory into huge pages: it would give the guest private pages without a fault. Asked for
   by MADV_COLLAPSE, which does at once what khugepaged does in its own time. */
static void no_huge_pages(void) {
    const uint64_t huge = 2 << 20;
    options o = plain;
    hlsnap_value v[4];
    snapshot *s;
    sandbox *sb;
    uint8_t *at, *mine;
    int r;
    NEED_KVM;
    if (access("/sys/kernel/mm/transparent_hugepage/enabled", R_OK)) SKIP("a kernel without transparent huge pages");
    mine = (uint8_t *)mmap(NULL, 4 * huge, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0); /* could it be done at all? */
    memset(mine, 1, 4 * huge);
    r = madvise((void *)(((uintptr_t)mine + huge) & ~(uintptr_t)(huge - 1)), huge, 25 /* MADV_COLLAPSE */);
    if (r) note("MADV_COLLAPSE", errno == EINVAL ? "not in this kernel" : "fails on ordinary memory too");
    munmap(mine, 4 * huge);
    o.heap = 8 << 20;
    sb = start(&o);
    NEED(sb);
    v[0] = hlsnap_u64(gva_of(sb, HLSNAP__HEAP) + huge), v[1] = hlsnap_u64(2 * huge), v[2] = hlsnap_u64(1), v[3] = hlsnap_u32(8192);
    CHECK_EQ(call(sb, "fill", v, 4, NULL), HLSNAP_OK); /* every other page */
    s = take(sb);
    at = hlsnap__memory_at(&sb->memory, hlsnap__region_page(&sb->memory.layout, hlsnap__layout_find(&sb->memory.layout, HLSNAP__HEAP)));
    CHECK(madvise(at + huge, 2 * huge, 25) != 0);
    nap_us(is_slow ? 1000 : 20000);
    CHECK(smaps_kib(sb, "AnonHugePages:") <= 0);
    v[2] = hlsnap_u64(9), v[3] = hlsnap_u32(4096);
    CHECK_EQ(call(sb, "fill", v, 4, NULL), HLSNAP_OK);
    CHECK(smaps_kib(sb, "AnonHugePages:") <= 0);
    CHECK_EQ(restore(sb, s), HLSNAP_OK);
    CHECK_EQ(call_u64(sb, "count"), 7);
    hlsnap_sandbox_destroy(sb);
    hlsnap_snapshot_release(s);
}

/* But where they are asked for: one touch makes 512 pages private, and a restore puts all of them back. */
static void huge_pages(void) {
    const uint64_t huge = 2 << 20;
    options o = plain;
    hlsnap_stats stats;
    hlsnap_value v[4];
    snapshot *s;
    sandbox *sb;
    char enabled[64] = "";
    FILE *f;
    int i;
    NEED_KVM;
    f = fopen("/sys/kernel/mm/transparent_hugepage/enabled", "r");
    if (!f || !fgets(enabled, sizeof(enabled), f) || strstr(enabled, "[never]")) SKIP("a kernel without transparent huge pages");
    fclose(f);
    o.heap = 8 << 20;
    o.huge = true;
    sb = start(&o);
    NEED(sb);
    s = take(sb);
    hlsnap_sandbox_destroy(sb);
    sb = from(s, &o);
    NEED(sb);
    v[0] = hlsnap_u64((gva_of(sb, HLSNAP__HEAP) + 2 * huge) & ~(huge - 1)), v[1] = hlsnap_u64(4096), v[2] = hlsnap_u64(1), v[3] = hlsnap_u32(0);
    CHECK_EQ(call(sb, "fill", v, 4, NULL), HLSNAP_OK);
    printf("# %ld KiB in huge pages\n", smaps_kib(sb, "AnonHugePages:"));
    if (smaps_kib(sb, "AnonHugePages:") < 2048) note("huge pages", "none free");
    for (i = 0; i < 6; i++) {
        CHECK_EQ(restore(sb, s), HLSNAP_OK);
        hlsnap_sandbox_get_stats(sb, &stats);
        if (!i) CHECK(stats.hot_pages >= 512 || smaps_kib(sb, "AnonHugePages:") < 2048);
        CHECK(hlsnap__all_zero(hlsnap__memory_at(&sb->memory, hlsnap__gva_page(&sb->memory.layout, v[0].as.u64)), huge));
        v[1] = hlsnap_u64(i < 3 ? huge : 4096);
        CHECK_EQ(call(sb, "fill", v, 4, NULL), HLSNAP_OK);
    }
    CHECK_EQ(restore(sb, s), HLSNAP_OK);
    CHECK(hlsnap__all_zero(hlsnap__memory_at(&sb->memory, hlsnap__gva_page(&sb->memory.layout, v[0].as.u64)), huge));
    hlsnap_sandbox_destroy(sb);
    hlsnap_snapshot_release(s);
}

/* Pages that became private in a way that no counter of the thread shows are found at the next restore: what the guest wrote
   there, or whoever else, is gone. */
typedef struct behind { sandbox *sb; uint8_t *page; pid_t pid; } behind;
static void *behind_populates(void *user) {
    const behind *b = (const behind *)user;
    return madvise(b->page, 4096, HLSNAP__MADV_POPULATE_WRITE) ? NULL : user;
}
static void *behind_locks(void *user) {
    const bool ok = mlockall(MCL_CURRENT) == 0 && munlockall() == 0;
    return ok ? user : NULL;
}
static void *behind_stays_locked(void *user) { return mlockall(MCL_CURRENT) ? NULL : user; }
static void *behind_writes(void *user) { /* a stray pointer */
    ((behind *)user)->page[5] ^= 0x77;
    return user;
}
static bool behind_child(const behind *b, bool mem) { /* as a debugger would */
    uint64_t v = 0x77;
    struct iovec from = {&v, 1}, to = {b->page + 5, 1};
    char path[64];
    int fd;
    if (!mem) return syscall(SYS_process_vm_writev, b->pid, &from, 1l, &to, 1l, 0l) == 1;
    snprintf(path, sizeof(path), "/proc/%d/mem", b->pid);
    fd = open(path, O_WRONLY);
    return fd >= 0 && pwrite(fd, &v, 1, (off_t)(uintptr_t)(b->page + 5)) == 1;
}
static void *behind_other_process(void *user, bool mem) {
    const pid_t child = fork();
    int status = 1;
    if (child == 0) _exit(!behind_child((const behind *)user, mem));
    return child > 0 && waitpid(child, &status, 0) == child && status == 0 ? user : NULL;
}
static void *behind_vm_writev(void *user) { return behind_other_process(user, false); }
static void *behind_mem(void *user) { return behind_other_process(user, true); }
static void behind_our_back(void) {
    /* mlockall last: all of the heap is private from then on, and known to be */
    static void *(*const ways[])(void *) = {behind_populates, behind_writes, behind_vm_writev, behind_mem, behind_locks, behind_stays_locked};
    static const char *const names[] = {"populate", "stray", "process_vm_writev", "mem", "mlockall", "locked"};
    const hlsnap__region *r;
    behind b;
    snapshot *s;
    size_t i, writes;
    NEED_KVM;
    b.sb = start(&small);
    b.pid = getpid();
    NEED(b.sb);
    s = take(b.sb);
    r = hlsnap__layout_find(&b.sb->memory.layout, HLSNAP__HEAP);
    for (i = 0; i < HLSNAP_COUNT(ways) * 2; i++) {
        const uint64_t page = hlsnap__region_page(&b.sb->memory.layout, r) + 20 + i;
        hlsnap_value v[3];
        pthread_t t;
        void *done = NULL;
        b.page = hlsnap__memory_at(&b.sb->memory, page);
        writes = i % 2; /* the guest does, after that */
        CHECK_EQ(restore(b.sb, s), HLSNAP_OK);
        CHECK_EQ(call(b.sb, "nop", HLSNAP_NO_ARGS, NULL), HLSNAP_OK);
        CHECK_EQ(restore(b.sb, s), HLSNAP_OK); /* all that calls need is private by now */
        if (ways[i / 2] != behind_locks && ways[i / 2] != behind_stays_locked) CHECK(!hlsnap__bit(b.sb->memory.is_hot, page)); /* and this is not */
        CHECK(pthread_create(&t, NULL, ways[i / 2], &b) == 0 && pthread_join(t, &done) == 0);
        if (!done) {
            note(names[i / 2], "not here");
            continue;
        }
        v[0] = hlsnap_u64(b.sb->memory.layout.base + page * 4096 + 8), v[1] = hlsnap_u64(0x5ec4e7), v[2] = hlsnap_u32(8);
        if (writes) CHECK_EQ(call(b.sb, "poke", v, 3, NULL), HLSNAP_OK);
        CHECK_EQ(restore(b.sb, s), HLSNAP_OK);
        if (!CHECK(hlsnap__all_zero(b.page, 4096))) printf("# %s, %s\n", names[i / 2], writes ? "then the guest" : "nothing more");
    }
    munlockall();
    hlsnap_sandbox_destroy(b.sb);
    hlsnap_snapshot_release(s);
}

/* A reset of a used sandbox copies what changed, not more. */
static void steady_state(void) {
    hlsnap_stats a, b;
    snapshot *s;
    sandbox *sb;
    int i;
    NEED_KVM;
    sb = start(&plain);
    NEED(sb);
    s = take(sb);
    for (i = 0; i < 40; i++) call_u64(sb, "count"), CHECK_EQ(restore(sb, s), HLSNAP_OK);
    hlsnap_sandbox_get_stats(sb, &a);
    for (i = 0; i < 100; i++) {
        CHECK_EQ(call_u64(sb, "count"), 7);
        CHECK_EQ(restore(sb, s), HLSNAP_OK);
    }
    hlsnap_sandbox_get_stats(sb, &b);
    CHECK(b.hot_pages < 64);
    CHECK((b.copied_bytes - a.copied_bytes) / 100 <= 6 * 4096);
    CHECK_EQ(b.restores - a.restores, 100);
    hlsnap_sandbox_destroy(sb);
    hlsnap_snapshot_release(s);
}

/* Pages that rest are given back, but only where what lies below is what the reset wants: here it is the older snapshot's. */
static void idle_pages(void) {
    const uint64_t pages = 300; /* enough for a layer with a file behind it, which is mapped and not copied */
    options o = small;
    uint8_t *shadow[2];
    hlsnap_value v[4];
    hlsnap_stats st;
    snapshot *s[2];
    sandbox *sb;
    int i, k;
    NEED_KVM;
    o.heap = 2 << 20;
    sb = start(&o);
    NEED(sb);
    for (i = 0; i < 2; i++) {
        v[0] = hlsnap_u64(gva_of(sb, HLSNAP__HEAP) + 40960), v[1] = hlsnap_u64(pages * 4096), v[2] = hlsnap_u64((uint64_t)i * 77), v[3] = hlsnap_u32(64);
        CHECK_EQ(call(sb, "fill", v, 4, NULL), HLSNAP_OK);
        shadow[i] = (uint8_t *)malloc(stored_size(sb));
        NEED(shadow[i]);
        stored_read(sb, shadow[i]);
        s[i] = take(sb);
    }
    hlsnap_sandbox_destroy(sb);
    sb = from(s[0], &o);
    NEED(sb);
    CHECK(s[0]->layers[s[0]->num_layers - 1]->fd >= 0);
    for (k = 0; k < 4; k++) /* mapped from the older one: at the newer one, at the older, at the newer with writes between */
        for (i = 0; i < 45; i++) {
            if (k == 3 && i % 17 == 16) v[2] = hlsnap_u64((uint64_t)i), CHECK_EQ(call(sb, "fill", v, 4, NULL), HLSNAP_OK);
            if (i % 9 == 1) CHECK_EQ(call_u64(sb, "count"), 7);
            CHECK_EQ(restore(sb, s[k != 1]), HLSNAP_OK);
            CHECK(stored_same(sb, shadow[k != 1]));
        }
    for (i = 0; i < 45; i++) CHECK_EQ(restore(sb, s[0]), HLSNAP_OK);
    hlsnap_sandbox_get_stats(sb, &st);
    CHECK(st.hot_pages < pages + 20);
    hlsnap_sandbox_destroy(sb);
    for (i = 0; i < 2; i++) hlsnap_snapshot_release(s[i]), free(shadow[i]);
}

/* A cancel in the middle of an exception's delivery leaves one injected: a restore must not hand it to the next tenant. */
static void leftover_event(void) {
    struct kvm_vcpu_events e;
    snapshot *s;
    sandbox *sb;
    int i;
    NEED_KVM;
    sb = start(&small);
    NEED(sb);
    s = take(sb);
    for (i = 0; i < 10; i++) {
        CHECK_EQ(call_u64(sb, "count"), 7);
        CHECK_EQ(hlsnap__ioctl(sb->shell->vcpu, KVM_GET_VCPU_EVENTS, (uintptr_t)&e), 0);
        e.exception.injected = 1;
        e.exception.nr = i % 2 ? 6 : 13;
        e.exception.has_error_code = i % 2 == 0;
        e.exception.error_code = 0;
        CHECK_EQ(hlsnap__ioctl(sb->shell->vcpu, KVM_SET_VCPU_EVENTS, (uintptr_t)&e), 0);
        sb->shell->run->immediate_exit = 1; /* an exit, that KVM reports it */
        CHECK_EQ(hlsnap__ioctl(sb->shell->vcpu, KVM_RUN, 0), -1);
        sb->shell->run->immediate_exit = 0;
        CHECK_EQ(restore(sb, s), HLSNAP_OK);
    }
    CHECK_EQ(call_u64(sb, "count"), 7);
    hlsnap_sandbox_destroy(sb);
    hlsnap_snapshot_release(s);
}

/* ---- >>threads ---- */

typedef struct worker { sandbox *sb; snapshot *s; uint64_t rounds, bad; int id; int32_t *gate; } worker;

static void *moved_call(void *user) {
    worker *w = (worker *)user;
    hlsnap_value v = hlsnap_i32(9), out;
    uint64_t i;
    for (i = 0; i < w->rounds; i++)
        if (hlsnap_sandbox_call(w->sb, "host_loop", &v, 1, &out, NULL) || out.as.i32 != 36 || hlsnap_sandbox_restore(w->sb, w->s, NULL)) w->bad++;
    return NULL;
}

/* One sandbox, used by one thread after another: with dirty memory, poisoned, with other signal masks. */
static void move_between_threads(void) {
    hlsnap_value forever = hlsnap_u64(0);
    worker w;
    pthread_t thread;
    sigset_t some, old;
    int i;
    NEED_KVM;
    memset(&w, 0, sizeof(w));
    w.sb = start(&small);
    NEED(w.sb);
    w.s = take(w.sb);
    w.rounds = 5;
    sigemptyset(&some);
    sigaddset(&some, SIGUSR2);
    for (i = 0; i < 40; i++) {
        if (i % 3 == 0) pthread_sigmask(SIG_BLOCK, &some, &old);
        pthread_create(&thread, NULL, moved_call, &w);
        if (i % 3 == 0) pthread_sigmask(SIG_SETMASK, &old, NULL);
        pthread_join(thread, NULL);
        CHECK_EQ(call_u64(w.sb, "count"), 7);
        if (i % 4 == 0) CHECK_EQ(call_limited(w.sb, "spin", &forever, 1, 1000000), HLSNAP_ERR_TIMEOUT);
        CHECK_EQ(restore(w.sb, w.s), HLSNAP_OK);
    }
    CHECK_EQ(w.bad, 0);
    hlsnap_sandbox_destroy(w.sb);
    hlsnap_snapshot_release(w.s);
}

static void *own_sandboxes(void *user) {
    worker *w = (worker *)user;
    hlsnap_error err;
    uint64_t i, k;
    while (w->gate && !load32(w->gate)) sched_yield();
    for (i = 0; i < w->rounds; i++) {
        hlsnap_function functions[NUM_FUNCTIONS];
        hlsnap_sandbox_desc d;
        hlsnap_value v = hlsnap_u32((uint32_t)(w->id * 10)), forever = hlsnap_u64(0), out;
        hlsnap_invocation one = {{0}, &forever, 1, 3000000, 0, NULL};
        sandbox *sb;
        desc_of(&small, functions, &d);
        if (hlsnap_sandbox_create_from(w->s, &d, &sb, &err)) {
            w->bad++;
            continue;
        }
        for (k = 0; k < 4; k++) {
            w->bad += hlsnap_sandbox_call(sb, "heap", &v, 1, &out, &err) != HLSNAP_OK;
            w->bad += hlsnap_sandbox_call(sb, "count", HLSNAP_NO_ARGS, &out, &err) != HLSNAP_OK || out.as.u64 != 7;
            w->bad += hlsnap_sandbox_restore(sb, w->s, &err) != HLSNAP_OK;
        }
        w->bad += hlsnap_sandbox_find(sb, "spin", NULL, &one.target, &err) != HLSNAP_OK;
        if (i % 2) w->bad += hlsnap_sandbox_invoke(sb, &one, 1, NULL, NULL, &err) != HLSNAP_ERR_TIMEOUT;
        hlsnap_sandbox_destroy(sb);
    }
    return NULL;
}

static void run_workers(worker *w, pthread_t *threads, int n) {
    int i;
    for (i = 0; i < n; i++) pthread_create(&threads[i], NULL, own_sandboxes, &w[i]);
    if (w[0].gate) store32(w[0].gate, 1);
    for (i = 0; i < n; i++) pthread_join(threads[i], NULL);
    for (i = 0; i < n; i++) CHECK_EQ(w[i].bad, 0);
}

static void eight_threads(void) {
    worker w[8];
    pthread_t threads[8];
    snapshot *s;
    sandbox *sb;
    int i;
    NEED_KVM;
    sb = start(&small);
    NEED(sb);
    s = take(sb);
    memset(w, 0, sizeof(w));
    for (i = 0; i < 8; i++) w[i].s = s, w[i].rounds = is_slow ? 3 : 20, w[i].id = i;
    run_workers(w, threads, 8);
    hlsnap_sandbox_destroy(sb);
    hlsnap_snapshot_release(s);
}

/* ---- >>pools: the isolation of those who share one ---- */

typedef struct tenants {
    hlsnap_pool *pool;
    snapshot *s[3];
    uint8_t *shadow[3]; /* what each holds, all of it */
    uint64_t pages[3], heap[3];
    int32_t bad;
    uint64_t rounds;
} tenants;

static void *one_tenant(void *user) {
    tenants *t = (tenants *)user;
    uint64_t dice = (uint64_t)(uintptr_t)&t, i;
    uint8_t *now = (uint8_t *)malloc(1u << 20);
    for (i = 0; i < t->rounds; i++) {
        const uint32_t k = (uint32_t)((dice = dice * 6364136223846793005u + 1) >> 33) % 3, what = (uint32_t)(dice >> 40) % 8;
        hlsnap_value v[4], out;
        hlsnap_error e;
        sandbox *sb;
        int bad;
        if (hlsnap_pool_acquire(t->pool, t->s[k], &sb, &e)) {
            __atomic_fetch_add(&t->bad, 1, __ATOMIC_RELAXED);
            continue;
        }
        bad = hlsnap_sandbox_read(sb, t->heap[k], now, t->pages[k] * 4096, &e) != 0 || memcmp(now, t->shadow[k], t->pages[k] * 4096) != 0;
        bad |= hlsnap_sandbox_call(sb, "count", HLSNAP_NO_ARGS, &out, &e) != HLSNAP_OK || out.as.u64 != 7;
        v[0] = hlsnap_u64(t->heap[k] + 4096 * (dice >> 50 & 7)), v[1] = hlsnap_u64(4096 * (1 + (dice >> 53 & 7))), v[2] = hlsnap_u64(dice | 1), v[3] = hlsnap_u32(64);
        bad |= hlsnap_sandbox_call(sb, "fill", v, 4, NULL, &e) != HLSNAP_OK;
        v[0] = hlsnap_u32(6), v[1] = hlsnap_u64(0);
        if (what == 0) bad |= hlsnap_sandbox_call(sb, "fault", v, 2, &out, &e) != HLSNAP_ERR_FAULT;
        if (what == 1) hlsnap_sandbox_retire(sb);
        if (what == 2) hlsnap_sandbox_destroy(sb);
        if (what != 2) hlsnap_pool_release(t->pool, sb);
        if (what == 3 && i % 16 == 0) hlsnap_pool_trim(t->pool, t->s[k]);
        if (bad) __atomic_fetch_add(&t->bad, 1, __ATOMIC_RELAXED);
    }
    free(now);
    return NULL;
}

/* Threads that share three sandboxes among three snapshots of two layouts, and leave them in all states. */
static void pool_of_threads(void) {
    const options other = {128 << 10, 32 << 10, 16 << 10, 0, NULL, NULL, NULL, 0, 0, false, false, NULL, 0, HLSNAP_PREFAULT_OFF, false, false, false};
    hlsnap_function functions[NUM_FUNCTIONS];
    hlsnap_sandbox_desc d;
    hlsnap_pool_desc pool = HLSNAP_ZERO;
    hlsnap_pool_stats st;
    hlsnap_error err;
    pthread_t threads[4];
    guest_addresses a;
    tenants t;
    sandbox *sb;
    int i;
    NEED_KVM;
    memset(&t, 0, sizeof(t));
    for (i = 0; i < 3; i++) {
        hlsnap_value v[4];
        sb = start(i == 2 ? &other : &small);
        NEED(sb);
        CHECK(addresses_of(sb, &a));
        t.heap[i] = a.heap;
        t.pages[i] = (i == 2 ? 128u : 256u) / 4 - 1;
        v[0] = hlsnap_u64(t.heap[i] + 8192), v[1] = hlsnap_u64(20 * 4096), v[2] = hlsnap_u64(5 + (uint64_t)i), v[3] = hlsnap_u32(8);
        CHECK_EQ(call(sb, "fill", v, 4, NULL), HLSNAP_OK);
        t.s[i] = take(sb);
        t.shadow[i] = (uint8_t *)malloc(t.pages[i] * 4096);
        CHECK_EQ(hlsnap_sandbox_read(sb, t.heap[i], t.shadow[i], t.pages[i] * 4096, &err), HLSNAP_OK);
        hlsnap_sandbox_destroy(sb);
    }
    desc_of(&small, functions, &d);
    pool.sandbox = &d;
    pool.max_sandboxes = 3;
    pool.warm = 1;
    pool.idle_ns = 2000000;
    pool.wait_ns = UINT64_MAX;
    CHECK_EQ(hlsnap_pool_create(&pool, &t.pool, &err), HLSNAP_OK);
    t.rounds = is_slow ? 20 : HLSNAP__SANITIZED ? 150 : 600;
    for (i = 0; i < 4; i++) pthread_create(&threads[i], NULL, one_tenant, &t);
    for (i = 0; i < 4; i++) pthread_join(threads[i], NULL);
    CHECK_EQ(t.bad, 0);
    hlsnap_pool_get_stats(t.pool, &st);
    CHECK(st.acquired == 4 * t.rounds && st.sandboxes <= 3 && st.ready + st.moved + st.made == st.acquired && st.refused == 0);
    printf("# of %llu: ready %llu, moved %llu, made %llu; waited %llu, ended %llu\n", (unsigned long long)st.acquired, (unsigned long long)st.ready,
           (unsigned long long)st.moved, (unsigned long long)st.made, (unsigned long long)st.waited, (unsigned long long)st.ended);
    hlsnap_pool_destroy(t.pool);
    for (i = 0; i < 3; i++) hlsnap_snapshot_release(t.s[i]), free(t.shadow[i]);
}

/* The first sandboxes of a process, all at once: the facts about the machine are published by one of them. */
static void facts_race(void) {
    worker w[8];
    pthread_t threads[8];
    int32_t gate;
    snapshot *s;
    sandbox *sb;
    int round, i;
    NEED_KVM;
    sb = start(&small);
    NEED(sb);
    s = take(sb);
    for (round = 0; round < (is_slow ? 2 : 20); round++) {
        memset(&hlsnap__kvm_facts_published, 0, sizeof(hlsnap__kvm_facts_published));
        store32(&hlsnap__kvm_facts_state, 0);
        store32(&gate, 0);
        memset(w, 0, sizeof(w));
        for (i = 0; i < 8; i++) w[i].s = s, w[i].rounds = 1, w[i].id = i, w[i].gate = &gate;
        run_workers(w, threads, 8);
        CHECK_EQ(load32(&hlsnap__kvm_facts_state), 2);
        CHECK(hlsnap__kvm_facts_published.run_size >= sizeof(hlsnap__kvm_run) && hlsnap__kvm_facts_published.cpuid.num > 4);
    }
    hlsnap_sandbox_destroy(sb);
    hlsnap_snapshot_release(s);
}

static void many_sandboxes(void) {
    enum { N = 200 };
    static sandbox *sb[N];
    const int n = is_slow ? 20 : N;
    hlsnap_value v[3];
    guest_addresses a;
    snapshot *s;
    int i, round;
    NEED_KVM;
    sb[0] = start(&small);
    NEED(sb[0]);
    s = take(sb[0]);
    CHECK(addresses_of(sb[0], &a));
    for (i = 1; i < n; i++) {
        sb[i] = from(s, &small);
        NEED(sb[i]);
    }
    for (i = 0; i < n; i++) { /* each diverges by copy-on-write */
        v[0] = hlsnap_u64(a.bss), v[1] = hlsnap_u64((uint64_t)i), v[2] = hlsnap_u32(2);
        CHECK_EQ(call(sb[i], "poke", v, 3, NULL), HLSNAP_OK);
    }
    for (round = 0; round < 2; round++)
        for (i = 0; i < n; i++) {
            uint16_t got = 0xffff;
            CHECK_EQ(hlsnap_sandbox_read(sb[i], a.bss, &got, 2, NULL), HLSNAP_OK);
            CHECK_EQ(got, round ? 0 : i);
            CHECK_EQ(call_u64(sb[i], "count"), 7);
            CHECK_EQ(restore(sb[i], s), HLSNAP_OK);
        }
    for (i = 0; i < n; i++) hlsnap_sandbox_destroy(sb[(i * 7) % n]);
    hlsnap_snapshot_release(s);
}

/* ---- >>fork: the child can free its copy, and the parent's sandbox is none the worse ---- */

static int in_child(sandbox *sb, snapshot *s) {
    uint64_t word;
    hlsnap_interrupt *h;
    sandbox *own = NULL;
    if (hlsnap_sandbox_call(sb, "count", HLSNAP_NO_ARGS, NULL, NULL) != HLSNAP_ERR_STATE) return 2;
    if (hlsnap_sandbox_restore(sb, s, NULL) != HLSNAP_ERR_STATE) return 3;
    if (hlsnap_sandbox_read(sb, gva_of(sb, HLSNAP__HEAP), &word, 8, NULL) != HLSNAP_ERR_STATE) return 4;
    h = hlsnap_sandbox_get_interrupt(sb);
    if (hlsnap_interrupt_cancel(h)) return 5;
    hlsnap_sandbox_destroy(sb);
    hlsnap_interrupt_release(h);
    own = from(s, &small); /* snapshots live on in the child */
    if (!own || call_u64(own, "count") != 7) return 6;
    hlsnap_sandbox_destroy(own);
    hlsnap_snapshot_release(s);
    return 0;
}

static void fork_child(void) {
    hlsnap_value forever = hlsnap_u64(0);
    snapshot *s;
    sandbox *sb;
    int i, status;
    NEED_KVM;
    sb = start(&small);
    NEED(sb);
    s = take(sb);
    for (i = 0; i < 4; i++) {
        pid_t child;
        if (i % 2) CHECK_EQ(call_limited(sb, "spin", &forever, 1, 1000000), HLSNAP_ERR_TIMEOUT);
        fflush(stdout);
        child = fork();
        if (child == 0) {
            status = in_child(sb, s);
            fflush(stdout);
            _exit(status);
        }
        CHECK_EQ(waitpid(child, &status, 0), child);
        CHECK(WIFEXITED(status));
        CHECK_EQ(WEXITSTATUS(status), 0);
        if (i % 2) CHECK_EQ(restore(sb, s), HLSNAP_OK);
        CHECK_EQ(call_u64(sb, "count"), 7);
        CHECK_EQ(restore(sb, s), HLSNAP_OK);
        CHECK_EQ(call_limited(sb, "spin", &forever, 1, 1000000), HLSNAP_ERR_TIMEOUT);
        CHECK_EQ(restore(sb, s), HLSNAP_OK);
    }
    hlsnap_sandbox_destroy(sb);
    hlsnap_snapshot_release(s);
}

/* ---- >>layouts: one sandbox for guests of every shape ---- */

static void other_layouts(void) {
    static const options shapes[] = {
        {0, 0, 0, 0, NULL, NULL, NULL, 0, 0, false, false, NULL, 0, HLSNAP_PREFAULT_OFF, false, false, false}, {64 << 10, 16 << 10, 8 << 10, 0, NULL, NULL, NULL, 0, 0, false, false, NULL, 0, HLSNAP_PREFAULT_OFF, false, false, false},
        {6 << 20, 256 << 10, 1 << 20, 0, NULL, NULL, NULL, 0, 0, false, false, NULL, 0, HLSNAP_PREFAULT_OFF, false, false, false}, {64 << 20, 64 << 10, 16 << 10, 0, NULL, NULL, NULL, 0, 0, false, false, NULL, 0, HLSNAP_PREFAULT_OFF, false, false, false}};
    enum { N = 5 };
    const uint64_t all = is_slow ? 40 : 300;
    snapshot *s[N];
    sandbox *sb, *raw;
    uint64_t i, k;
    NEED_KVM;
    for (i = 0; i < 4; i++) {
        sb = start(&shapes[i]);
        NEED(sb);
        for (k = 0; k < i; k++) call_u64(sb, "count");
        s[i] = take(sb);
        if (i < 3) hlsnap_sandbox_destroy(sb);
    }
    s[4] = raw_guest(raw_answer, &raw);
    NEED(s[4]);
    hlsnap_sandbox_destroy(raw);
    for (i = 0; i < all; i++) {
        const uint64_t to = below(N);
        if (below(4) == 0) { /* the VM is gone: the restore makes a new one */
            sb->shell_dead = true;
            hlsnap_sandbox_retire(sb);
        }
        CHECK_EQ(restore(sb, s[to]), HLSNAP_OK);
        if (to == 4) CHECK_EQ(call_u64(sb, "f"), 1000);
        else CHECK_EQ(call_u64(sb, "count"), 7 + to);
        if (to == 2) round_trip(sb, "str", hlsnap_str("after a change of layout"));
    }
    hlsnap_sandbox_destroy(sb);
    for (i = 0; i < N; i++) hlsnap_snapshot_release(s[i]);
}

/* A VM whose vCPU is closed behind our back: a typed error, and the next restore builds another. */
static void dead_vm(void) {
    snapshot *s;
    sandbox *sb;
    hlsnap_result r;
    int i;
    NEED_KVM;
    sb = start(&small);
    NEED(sb);
    s = take(sb);
    for (i = 0; i < 5; i++) {
        const int fd = sb->shell->vcpu, null = open("/dev/null", O_RDWR | O_CLOEXEC);
        CHECK_EQ(syscall(SYS_dup3, null, fd, O_CLOEXEC), fd);
        close(null);
        r = i % 2 ? restore(sb, s) : HLSNAP_OK;
        if (!r) r = call(sb, "count", HLSNAP_NO_ARGS, NULL);
        CHECK(r == HLSNAP_ERR_HYPERVISOR || r == HLSNAP_ERR_OS);
        for (r = HLSNAP_ERR_OS; r && hlsnap_sandbox_restore(sb, s, NULL) == HLSNAP_OK && i < 5; ) r = call(sb, "count", HLSNAP_NO_ARGS, NULL);
        CHECK_EQ(r, HLSNAP_OK);
        CHECK_EQ(restore(sb, s), HLSNAP_OK);
    }
    hlsnap_sandbox_destroy(sb);
    hlsnap_snapshot_release(s);
}

#include "test_kvm_hosts.h"

/* ---- >>leaks: descriptors and mappings before and after everything ---- */

static int count_fds(void) {
    int fd, n = 0;
    for (fd = 0; fd < 4096; fd++) n += fcntl(fd, F_GETFD) >= 0;
    return n;
}
static int count_maps(const char *what) { /* lines of /proc/self/maps that hold `what` */
    FILE *f = fopen("/proc/self/maps", "r");
    char line[512];
    int n = 0;
    if (!f) return -1;
    while (fgets(line, sizeof(line), f)) n += strstr(line, what) != NULL;
    fclose(f);
    return n;
}

static int fds_at_start;
static void leaks(void) {
    int maps = 0, fds = 0, i;
    NEED_KVM;
    CHECK_EQ(count_fds(), fds_at_start); /* after all tests before this one */
    CHECK_EQ(count_maps("kvm-vcpu"), 0);
    CHECK_EQ(count_maps("memfd:"), 0);
    for (i = 0; i < 12; i++) {
        sandbox *sb = start(&small), *clone;
        snapshot *s, *t;
        hlsnap_value forever = hlsnap_u64(0);
        NEED(sb);
        s = take(sb);
        clone = from(s, &small);
        call(sb, "nop", HLSNAP_NO_ARGS, NULL);
        t = take(sb);
        CHECK_EQ(restore(clone, t), HLSNAP_OK);
        CHECK_EQ(call_limited(clone, "spin", &forever, 1, 1000000), HLSNAP_ERR_TIMEOUT);
        CHECK_EQ(restore(clone, s), HLSNAP_OK);
        hlsnap_snapshot_release(s);
        hlsnap_sandbox_destroy(sb);
        hlsnap_sandbox_destroy(clone);
        hlsnap_snapshot_release(t);
        if (i == 3) maps = count_maps(""), fds = count_fds();
    }
    i = count_maps(""); /* one for each of the last eight rounds would be a leak; those of a sanitizer come and go by themselves */
    if (HLSNAP__SANITIZED) CHECK(i < maps + 8);
    else CHECK_EQ(i, maps);
    CHECK_EQ(count_fds(), fds);
    CHECK_EQ(fds, fds_at_start);
}

/* ---- >>main ---- */

/* ---- >>maps: what a real page table, a real TLB and a real page cache make of them; the rest is in test_maps.c ---- */

static const char *map_file(const char *name, uint64_t size, uint8_t seed_byte) {
    static char paths[4][64];
    static int next;
    char *path = paths[next++ % 4];
    FILE *f;
    uint64_t i;
    snprintf(path, sizeof(paths[0]), "/tmp/hlsnap-map-%d-%s", (int)getpid(), name);
    f = fopen(path, "w");
    for (i = 0; f && i < size; i++) fputc((int)(uint8_t)(seed_byte + i / 4096), f);
    if (f) fclose(f);
    return path;
}
static hlsnap_map map_named(const char *name, hlsnap_map_mode mode, const char *path) {
    hlsnap_map m = HLSNAP_ZERO;
    m.name = name;
    m.mode = mode;
    m.path = path;
    return m;
}
static uint64_t map_at(sandbox *sb, const char *name) {
    hlsnap_value v = VOID_VALUE;
    CHECK_EQ(call(sb, "map", HLSNAP_ARGS(hlsnap_str(name), hlsnap_bool(false)), &v), HLSNAP_OK);
    return v.as.u64;
}
static uint64_t see(sandbox *sb, uint64_t at, uint64_t size, uint64_t stride) {
    hlsnap_value v = VOID_VALUE;
    if (!CHECK_EQ(call(sb, "pages", HLSNAP_ARGS(hlsnap_u32(PAGES_TOUCH), hlsnap_u64(at), hlsnap_u64(size), hlsnap_u64(stride), hlsnap_u64(0)), &v), HLSNAP_OK)) printf("# %s\n", last.msg);
    return v.as.u64;
}
static hlsnap_result set(sandbox *sb, uint64_t at, uint64_t v) {
    return call(sb, "poke", HLSNAP_ARGS(hlsnap_u64(at), hlsnap_u64(v), hlsnap_u32(1)), NULL);
}

/* One place in the guest is one map after another, of other sizes, modes and content; and the VM has used each. */
static void maps_come_and_go(void) {
    static const uint64_t sizes[] = {4096, 3u << 20, 8192, 2u << 20, (4u << 20) + 4096};
    uint8_t *data = (uint8_t *)aligned_alloc(2u << 20, 4u << 20);
    snapshot *s;
    sandbox *sb = start(&plain);
    const uint32_t all = getenv("VMX") ? 15 : 40; /* each size in each mode; to fill the files takes Bochs minutes */
    uint32_t i;
    memset(data, 0, 4u << 20);
    s = take(sb);
    for (i = 0; i < all && !test_bad; i++) {
        const uint64_t size = sizes[i % HLSNAP_COUNT(sizes)];
        const hlsnap_map_mode mode = (hlsnap_map_mode)(i % 3);
        hlsnap_map m = map_named("m", mode, map_file("come", size, (uint8_t)(i * 3)));
        uint64_t at;
        CHECK_EQ(hlsnap_sandbox_map(sb, &m, &last), HLSNAP_OK);
        at = map_at(sb, "m");
        CHECK_EQ(at, HLSNAP__MAPS_GVA);
        CHECK_EQ(see(sb, at, 1, 1), (uint8_t)(i * 3));
        CHECK_EQ(see(sb, at + size - 4096, 1, 1), (uint8_t)(i * 3 + (size / 4096 - 1)));
        if (mode == HLSNAP_MAP_READ) {
            CHECK_EQ(set(sb, at, 1), HLSNAP_ERR_FAULT);
            CHECK_STR(last.region, "map");
            CHECK_EQ(restore(sb, s), HLSNAP_OK);
        } else CHECK_EQ(set(sb, at, 200), HLSNAP_OK);
        if (i % 2) CHECK_EQ(restore(sb, s), HLSNAP_OK);
        CHECK_EQ(see(sb, at, 1, 1), mode == HLSNAP_MAP_READ || (mode == HLSNAP_MAP_PRIVATE && i % 2) ? (uint8_t)(i * 3) : 200);
        CHECK_EQ(hlsnap_sandbox_unmap(sb, "m", &last), HLSNAP_OK);
        if (i % 4 == 0) {
            CHECK_EQ(call(sb, "pages", HLSNAP_ARGS(hlsnap_u32(PAGES_TOUCH), hlsnap_u64(at), hlsnap_u64(1), hlsnap_u64(1), hlsnap_u64(0)), NULL), HLSNAP_ERR_FAULT);
            CHECK_EQ(restore(sb, s), HLSNAP_OK);
        }
        if (i % 5 == 0) { /* memory of the host in its place */
            m = map_named("d", HLSNAP_MAP_SHARED, NULL);
            m.data = data;
            m.size = 4u << 20;
            CHECK_EQ(hlsnap_sandbox_map(sb, &m, &last), HLSNAP_OK);
            data[12] = (uint8_t)i;
            CHECK_EQ(see(sb, at + 12, 1, 1), (uint8_t)i);
            CHECK_EQ(set(sb, at + (4u << 20) - 1, i), HLSNAP_OK);
            CHECK_EQ(data[(4u << 20) - 1], (uint8_t)i);
            CHECK_EQ(hlsnap_sandbox_unmap(sb, "d", &last), HLSNAP_OK);
        }
        unlink(map_file("come", 0, 0));
    }
    hlsnap_snapshot_release(s);
    hlsnap_sandbox_destroy(sb);
    free(data);
}

/* Many at once, which come and go, and each is read after each change: no translation outlives what it was of. */
static void maps_juggled(void) {
    enum { N = 7, MOST = 1300 };
    static const uint32_t sizes[N] = {1, 16, 512, 513, 16, MOST, 700};
    uint8_t *data[N];
    bool there[N] = {false};
    snapshot *s;
    sandbox *sb = start(&plain);
    uint32_t i, k, n = is_slow ? 40 : 400;
    NEED(sb);
    s = take(sb);
    for (i = 0; i < N; i++) {
        data[i] = (uint8_t *)aligned_alloc(4096, sizes[i] * 4096ull);
        for (k = 0; k < sizes[i]; k++) memset(data[i] + k * 4096ull, (int)(i * 37 + k), 4096);
    }
    rnd_state = seed;
    for (i = 0; i < n && !test_bad; i++) {
        const uint32_t which = (uint32_t)below(N);
        hlsnap_map m = HLSNAP_ZERO;
        char name[8];
        snprintf(name, sizeof(name), "m%u", which);
        m.name = name;
        m.mode = which % 2 ? HLSNAP_MAP_SHARED : HLSNAP_MAP_READ;
        m.data = data[which];
        m.size = sizes[which] * 4096ull;
        if (there[which]) CHECK_EQ(hlsnap_sandbox_unmap(sb, name, &last), HLSNAP_OK);
        else CHECK_EQ(hlsnap_sandbox_map(sb, &m, &last), HLSNAP_OK);
        there[which] = !there[which];
        if (below(8) == 0) CHECK_EQ(restore(sb, s), HLSNAP_OK);
        for (k = 0; k < N; k++) {
            uint64_t at, page = below(sizes[k]);
            snprintf(name, sizeof(name), "m%u", k);
            if (!there[k] || below(3) == 0) continue;
            at = map_at(sb, name);
            if (!CHECK_EQ(see(sb, at + page * 4096, 1, 1), (uint8_t)(k * 37 + page)) ||
                !CHECK_EQ(see(sb, at + sizes[k] * 4096ull - 1, 1, 1), (uint8_t)(k * 37 + sizes[k] - 1)))
                printf("# change %u, map %s, SEED=0x%llx\n", i, name, (unsigned long long)seed);
        }
    }
    hlsnap_snapshot_release(s);
    hlsnap_sandbox_destroy(sb);
    for (i = 0; i < N; i++) free(data[i]);
}

/* A file that is cut off while the guest reads it. */
static void map_truncated(void) {
    const char *path = map_file("cut", 64 * 4096, 1);
    hlsnap_map m[2];
    hlsnap_sandbox_desc d;
    hlsnap_function functions[NUM_FUNCTIONS];
    snapshot *s = NULL;
    sandbox *sb = NULL;
    uint32_t i;
    m[0] = map_named("r", HLSNAP_MAP_READ, path);
    m[1] = map_named("p", HLSNAP_MAP_PRIVATE, path);
    CHECK_EQ(load(&plain, &s), HLSNAP_OK);
    desc_of(&plain, functions, &d);
    d.maps = m;
    d.num_maps = 2;
    CHECK_EQ(hlsnap_sandbox_create_from(s, &d, &sb, &last), HLSNAP_OK);
    hlsnap_snapshot_release(s);
    s = take(sb);
    CHECK_EQ(restore(sb, s), HLSNAP_OK);
    CHECK(see(sb, map_at(sb, "r"), 64 * 4096, 4096) > 0 && see(sb, map_at(sb, "p"), 4096, 1) > 0);
    CHECK_EQ(truncate(path, 8 * 4096), 0);
    for (i = 0; i < 4; i++) {
        const uint64_t at = map_at(sb, i % 2 ? "p" : "r") + 40 * 4096;
        const hlsnap_result r = i < 2 ? call(sb, "pages", HLSNAP_ARGS(hlsnap_u32(PAGES_TOUCH), hlsnap_u64(at), hlsnap_u64(1), hlsnap_u64(1), hlsnap_u64(0)), NULL) : i == 3 ? set(sb, at, 1) : HLSNAP_ERR_CHANGED;
        if (!CHECK_EQ(r, HLSNAP_ERR_CHANGED)) printf("# %s\n", last.msg);
        CHECK_EQ(restore(sb, s), HLSNAP_OK);
        CHECK_EQ(see(sb, map_at(sb, "r") + 4096, 1, 1), 2);
    }
    unlink(path);
    hlsnap_snapshot_release(s);
    hlsnap_sandbox_destroy(sb);
}

/* kB of this process's memory below `path` that is its own, and in all. */
static void map_pages(const char *path, long *own, long *all) {
    char line[512];
    bool in = false;
    long kb;
    FILE *f = fopen("/proc/self/smaps", "r");
    *own = *all = 0;
    while (f && fgets(line, sizeof(line), f)) {
        if (strchr(line, '-') && strchr(line, '-') < line + 17) in = strstr(line, path) != NULL;
        if (in && sscanf(line, "Anonymous: %ld", &kb) == 1) *own += kb;
        if (in && sscanf(line, "Rss: %ld", &kb) == 1) *all += kb;
    }
    if (f) fclose(f);
}

/* So many sandboxes with one large file: what each of them touches is the page cache's. */
static bool maps_of_many(snapshot *s, hlsnap_map *m, uint64_t size, uint32_t num) {
    hlsnap_sandbox_desc d;
    hlsnap_function functions[NUM_FUNCTIONS];
    sandbox *all[25];
    long own, shown;
    uint32_t i;
    desc_of(&plain, functions, &d);
    d.maps = m;
    d.num_maps = 1;
    for (i = 0; i < num; i++) {
        if (!CHECK_EQ(hlsnap_sandbox_create_from(s, &d, &all[i], &last), HLSNAP_OK)) printf("# %s\n", last.msg);
        CHECK_EQ(see(all[i], map_at(all[i], "big"), size, 256u << 10), size / (256u << 10) * 7);
    }
    map_pages(m->path, &own, &shown);
    CHECK_EQ(own, 0);
    CHECK(shown > 0);
    for (i = 0; i < num; i++) hlsnap_sandbox_destroy(all[i]);
    return !test_bad;
}

static void maps_are_page_cache(void) {
    const uint64_t size = is_slow ? 64ull << 20 : 2ull << 30;
    const uint32_t num = is_slow ? 3 : 25;
    const char *path = map_file("big", 0, 0);
    hlsnap_map m = map_named("big", HLSNAP_MAP_READ, path);
    snapshot *s = NULL;
    sandbox *sb;
    uint64_t i;
    int status;
    pid_t pid;
    const int fd = open(path, O_RDWR);
    CHECK_EQ(ftruncate(fd, (off_t)size), 0);
    for (i = 0; i < size; i += 256u << 10) CHECK_EQ(pwrite(fd, "\7", 1, (off_t)i), 1);
    close(fd);
    sb = start(&plain);
    s = take(sb);
    hlsnap_sandbox_destroy(sb);
    pid = fork();
    if (pid == 0) _exit(maps_of_many(s, &m, size, num) ? 0 : 1);
    maps_of_many(s, &m, size, num);
    CHECK_EQ(waitpid(pid, &status, 0), pid);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    unlink(path);
    hlsnap_snapshot_release(s);
}

/* ---- >>images: memory that a guest has shown at other places ---- */

static hlsnap_result image_call(sandbox *sb, uint32_t what, uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t *out) {
    const hlsnap_value v[5] = {hlsnap_u32(what), hlsnap_u64(a), hlsnap_u64(b), hlsnap_u64(c), hlsnap_u64(d)};
    hlsnap_value result;
    const hlsnap_result r = call(sb, "pages", v, 5, &result);
    *out = r ? UINT64_MAX : result.as.u64;
    return r;
}
static uint64_t image_do(sandbox *sb, uint32_t what, uint64_t a, uint64_t b, uint64_t c, uint64_t d) {
    uint64_t out;
    if (!CHECK_EQ(image_call(sb, what, a, b, c, d, &out), HLSNAP_OK)) printf("# %s\n", last.msg);
    return out;
}
static uint64_t pages_at(sandbox *sb, uint64_t n) { return image_do(sb, PAGES_NEW, n, 0, 0, 0); }
static uint64_t image_bytes(sandbox *sb, uint64_t at, uint64_t n) { return image_do(sb, IMAGE_NEW, at, n, 0, 0); }
static uint64_t image_at(sandbox *sb, uint64_t at, uint64_t pages) { return image_bytes(sb, at, pages * 4096); }
static uint64_t image_map(sandbox *sb, uint64_t image, uint64_t to, uint64_t at, uint64_t pages) {
    return image_do(sb, IMAGE_MAP, image, to, at * 4096, pages * 4096);
}
static uint64_t image_sum(sandbox *sb, uint64_t at, uint64_t pages) {
    hlsnap_value out;
    CHECK_EQ(call(sb, "sum", HLSNAP_ARGS(hlsnap_u64(at), hlsnap_u64(pages * 4096)), &out), HLSNAP_OK);
    return out.as.u64;
}

/* Translations of pages that were just read and written; where one was stale, the guest would see the image before, or its own. */
static void images_in_turns(void) {
    static const uint32_t sizes[] = {1, 16, 64, 65, 600};
    options o = plain;
    sandbox *sb;
    size_t i;
    int cpp;
    NEED_KVM;
    o.heap = 16 << 20;
    for (cpp = 0; cpp < 2; cpp++) {
        o.cpp = cpp != 0;
        sb = start(&o);
        for (i = 0; i < HLSNAP_COUNT(sizes); i++)
            if (!CHECK_EQ(image_do(sb, IMAGE_TURNS, sizes[i], is_slow ? 4 : 60, 0, 0), 0)) printf("# of %u pages\n", sizes[i]);
        hlsnap_sandbox_destroy(sb);
    }
}

/* Made before a snapshot they are in it, made later they are gone; the guest looks through translations that it had before. */
static void images_of_a_line(void) {
    options o = plain;
    sandbox *sb, *other;
    snapshot *before, *made;
    uint64_t from_at, to, image, sum, zero, i;
    NEED_KVM;
    o.heap = 4 << 20;
    sb = start(&o);
    from_at = pages_at(sb, 100), to = pages_at(sb, 100);
    CHECK_EQ(call(sb, "fill", HLSNAP_ARGS(hlsnap_u64(from_at), hlsnap_u64(100 * 4096), hlsnap_u64(3), hlsnap_u32(1)), NULL), HLSNAP_OK);
    sum = image_sum(sb, from_at, 100), zero = image_sum(sb, to, 100);
    before = take(sb);
    image = image_at(sb, from_at, 100);
    made = take(sb);
    for (i = 0; i < 6; i++) {
        CHECK_EQ(image_map(sb, image, to, 0, 100), HLSNAP_OK);
        CHECK_EQ(image_sum(sb, to, 100), sum);
        CHECK_EQ(call(sb, "poke", HLSNAP_ARGS(hlsnap_u64(to + 4096), hlsnap_u64(i), hlsnap_u32(8)), NULL), HLSNAP_OK);
        CHECK(image_sum(sb, to, 100) != sum && image_sum(sb, from_at, 100) == sum);
        CHECK_EQ(restore(sb, made), HLSNAP_OK);
        CHECK_EQ(image_sum(sb, to, 100), zero);
    }
    other = from(made, &o);
    CHECK_EQ(image_map(other, image, to, 50, 50), HLSNAP_OK);
    CHECK_EQ(image_sum(other, to, 50), image_sum(sb, from_at + 50 * 4096, 50));
    hlsnap_sandbox_destroy(other);
    CHECK_EQ(image_map(sb, image, to, 0, 100), HLSNAP_OK);
    CHECK_EQ(restore(sb, before), HLSNAP_OK);
    CHECK_EQ(image_sum(sb, to, 100), zero);
    CHECK_EQ(image_map(sb, image, to, 0, 100), HLSNAP_ERR_ARG); /* its head was in the heap, which is as it was */
    CHECK_EQ(image_sum(sb, to, 100), zero);
    hlsnap_snapshot_release(before);
    hlsnap_snapshot_release(made);
    hlsnap_sandbox_destroy(sb);
}

static void images_refused(void) {
    options o = plain;
    snapshot *s;
    sandbox *sb;
    uint64_t at, to, image, heap, end_of, sum;
    NEED_KVM;
    o.heap = 4 << 20;
    sb = start(&o);
    heap = gva_of(sb, HLSNAP__HEAP), end_of = heap + (4 << 20);
    at = pages_at(sb, 40), to = pages_at(sb, 40);
    CHECK_EQ(call(sb, "fill", HLSNAP_ARGS(hlsnap_u64(to), hlsnap_u64(40 * 4096), hlsnap_u64(3), hlsnap_u32(1)), NULL), HLSNAP_OK);
    sum = image_sum(sb, to, 40);
    CHECK_EQ(image_at(sb, 0, 1), 0);
    CHECK_EQ(image_at(sb, at, 0), 0);
    CHECK_EQ(image_bytes(sb, at, 4095), 0);
    CHECK_EQ(image_bytes(sb, at + 8, 4096), 0);
    CHECK_EQ(image_bytes(sb, at, UINT64_MAX - 4095), 0);
    CHECK_EQ(image_at(sb, 4096, 1), 0);
    CHECK_EQ(image_at(sb, end_of - 4096, 2), 0);
    CHECK_EQ(image_at(sb, 0xffff800000000000ull, 1), 0);
    CHECK_EQ(image_at(sb, HLSNAP__SYS_GPA, 1), 0);
    CHECK_EQ(image_at(sb, at, 900), 0); /* so much the heap has not */
    image = image_at(sb, at, 40);
    CHECK_EQ(image_map(sb, image, to + 8, 0, 40), HLSNAP_ERR_ARG);
    CHECK_EQ(image_map(sb, image, to, 0, 41), HLSNAP_ERR_ARG);
    CHECK_EQ(image_map(sb, image, to, 41, 0), HLSNAP_ERR_ARG);
    CHECK_EQ(image_map(sb, image, to, 0, 0), HLSNAP_ERR_ARG);
    CHECK_EQ(image_map(sb, image, to, 1, UINT64_MAX / 4096), HLSNAP_ERR_ARG);
    CHECK_EQ(image_map(sb, image, gva_of(sb, HLSNAP__TEXT), 0, 1), HLSNAP_ERR_ARG);
    CHECK_EQ(image_map(sb, image, end_of - 39 * 4096, 0, 40), HLSNAP_ERR_ARG);
    CHECK_EQ(image_map(sb, image, 0xffff800000000000ull, 0, 40), HLSNAP_ERR_ARG);
    CHECK_EQ(image_sum(sb, to, 40), sum);
    s = take(sb);
    CHECK_EQ(image_do(sb, IMAGE_FREE, image, 0, 0, 0), 0);
    CHECK_EQ(image_map(sb, image, to, 0, 40), HLSNAP_ERR_ARG);
    CHECK_EQ(image_call(sb, IMAGE_FREE, image, 0, 0, 0, &sum), HLSNAP_ERR_ABORT);
    CHECK_STR(last.msg, "guest abort -2: free of what is no image");
    CHECK_EQ(restore(sb, s), HLSNAP_OK);
    CHECK_EQ(image_map(sb, image, to, 0, 40), HLSNAP_OK);
    hlsnap_snapshot_release(s);
    hlsnap_sandbox_destroy(sb);
}

/* Made, mapped and freed 10,000 times: no heap, no descriptor, no mapping, and no memory of the host's is left. */
static void images_leave_nothing(void) {
    const uint32_t n = is_slow ? 100 : 2000;
    options o = plain;
    sandbox *sb;
    hlsnap_stats was, is;
    long shmem = 0;
    int fds = 0, lines = 0, i;
    NEED_KVM;
    o.heap = 4 << 20;
    sb = start(&o);
    memset(&was, 0, sizeof(was));
    for (i = 0; i <= 5; i++) {
        CHECK_EQ(image_do(sb, IMAGE_CYCLES, n, 0, 0, 0), 0);
        if (i) continue;
        hlsnap_sandbox_get_stats(sb, &was);
        fds = count_fds(), lines = count_maps(""), shmem = smaps_kib(sb, "Rss:");
    }
    hlsnap_sandbox_get_stats(sb, &is);
    CHECK_EQ(count_fds(), fds);
    CHECK(count_maps("") <= lines + 4);
    CHECK(smaps_kib(sb, "Rss:") <= shmem + 64);
    CHECK_EQ(is.heap_used, was.heap_used);
    CHECK_EQ(is.heap_peak, was.heap_peak);
    CHECK(is.hot_pages <= was.hot_pages + 4);
    hlsnap_sandbox_destroy(sb);
}

static const test_row tests[] = {
    TEST(abi_numbers), TEST(abi_layouts), TEST(types), TEST(large_messages), TEST(arguments), TEST(host_calls), TEST(batches), TEST(reserved), TEST(logs), TEST(aborts),
    TEST(randomness_and_generation), TEST(heap), TEST(formatting), TEST(thread_local_storage), TEST(stack_protector), TEST(self_guest), TEST(cpp_guest),
    TEST(faults), TEST(ports), TEST(pending_completion), TEST(cancel_random), TEST(cancel_endless), TEST(cancel_in_host_function), TEST(time_limit),
    TEST(time_limit_in_host), TEST(cpu_limit), TEST(nested_limits), TEST(two_timers), TEST(timer_after_thread_reuse), TEST(alarm_handler), TEST(alarm_storm),
    TEST(signals_kept), TEST(reset_proof), TEST(reset_proof_learned), TEST(reset_proof_huge), TEST(prefaulted), TEST(reset_proof_maps), TEST(reset_proof_images), TEST(reset_proof_system_calls), TEST(reset_proof_libc), TEST(quirk_no_gate_scrub), TEST(no_huge_pages), TEST(huge_pages), TEST(behind_our_back),
    TEST(steady_state), TEST(idle_pages), TEST(leftover_event), TEST(move_between_threads), TEST(eight_threads), TEST(facts_race), TEST(pool_of_threads), TEST(many_sandboxes), TEST(fork_child), TEST(other_layouts),
    TEST(dead_vm), TEST(kvm_refuses), TEST(unstoppable_is_refused), TEST(kvm_is_not_there), TEST(cancel_with_a_full_queue), TEST(cancel_where_signals_are_ignored), TEST(cancel_in_handler), TEST(cancel_hammered), TEST(cancel_is_awaited), TEST(cancel_from_around), TEST(cancel_in_a_child),
    TEST(strangers_signals), TEST(mask_of_the_thread), TEST(no_timer_is_left), TEST(maps_never_run), TEST(odd_exits), TEST(gate_is_tried), TEST(large_calls), TEST(residency), TEST(buffers_are_cleared), TEST(results_taken_back), TEST(without_proc),
    TEST(without_descriptors), TEST(locked_memory), TEST(leaks), TEST(maps_come_and_go), TEST(maps_juggled), TEST(map_truncated), TEST(maps_are_page_cache),
    TEST(images_in_turns), TEST(images_of_a_line), TEST(images_refused), TEST(images_leave_nothing)};

int main(int argc, char **argv) {
    const char *dir = getenv("GUEST_DIR");
    setvbuf(stdout, NULL, _IOLBF, 0);
    snprintf(guest_file, sizeof(guest_file), "%s/guest_kvm.elf", dir ? dir : ".");
    snprintf(cpp_file, sizeof(cpp_file), "%s/guest_kvm_cpp.elf", dir ? dir : ".");
    snprintf(syscall_file, sizeof(syscall_file), "%s/guest_kvm_syscall.elf", dir ? dir : ".");
    snprintf(libc_file, sizeof(libc_file), "%s/guest_kvm_libc.elf", dir ? dir : ".");
    hv = hlsnap_kvm();
    is_slow = env_number("SVM", 0) != 0;
    seed = env_number("SEED", now() ^ (uint64_t)getpid());
    fds_at_start = count_fds();
    return TEST_MAIN(tests, argc, argv);
}

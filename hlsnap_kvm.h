/* hlsnap_kvm.h - v0.3.0 - the hypervisor of hlsnap: Linux KVM on x86-64. License: MIT, end of file.

Do this, beside hlsnap.h:

    #define HLSNAP_IMPLEMENTATION        // in one source file
    #include "hlsnap.h"
    #include "hlsnap_kvm.h"

    if (hlsnap_kvm_probe(&err)) puts(err.msg);   // optional: what is missing, and what to do about it
    desc.hypervisor = hlsnap_kvm();

NEEDS
    /dev/kvm, readable and writable. Linux 5.10 or newer, which is the oldest that tests run; no kernel header newer than
    the compiler's is needed, since the numbers and structures of the KVM interface that are used stand here.

SIGNALS
    No handler is ever installed. During a call that can end early (it has a time limit, or a handle to cancel it is out) the
    sandbox's cancel signal (SIGURG, which is ignored where nobody wants it, unless its desc says otherwise) is blocked on the
    calling thread and let through only while the guest runs, where it ends the run. What hlsnap sent itself is consumed; one
    of anybody else's that came in the meantime is given back when the call ends (of a realtime signal, which can be queued,
    the first 16), and the thread's mask is as before. Other signals interrupt the guest for as long as their handlers take.

THREADS
    Any. Facts about the machine (CPUID, capabilities) are read once per process.

SEE docs/security.md for what the VM consists of. Source of the interface: the kernel's Documentation/virt/kvm/api.rst. */

#ifndef HLSNAP_KVM_H
#define HLSNAP_KVM_H
#include "hlsnap.h"
#if HLSNAP_VERSION != 3000
#error "hlsnap.h and hlsnap_kvm.h are of different releases"
#endif
#ifdef __cplusplus
extern "C" {
#endif

/* ==== >>kvm ==== */

/* hlsnap_kvm -- the KVM hypervisor, for hlsnap_sandbox_desc.
   returns   a static object, never NULL, also where KVM cannot be used: creating a sandbox then says why
   threads   any  */
HLSNAP_API const hlsnap_hypervisor *hlsnap_kvm(void);

/* hlsnap_kvm_probe -- can KVM be used here?
   err       out    may be NULL; what is missing and the command that mends it
   returns   HLSNAP_OK; HLSNAP_ERR_HYPERVISOR (no module, no permission, a KVM without what is needed); HLSNAP_ERR_OS,
             _MEMORY (no descriptors, tasks or memory left: hlsnap_result_transient)
   threads   any  */
HLSNAP_API hlsnap_result hlsnap_kvm_probe(hlsnap_error *err);

#ifdef __cplusplus
} /* extern "C" */
#endif
#endif /* HLSNAP_KVM_H */

/* ==========================================================================================================================
   >>implementation -- stop reading here if you only want the API
   ========================================================================================================================== */
#if defined(HLSNAP_IMPLEMENTATION) && !defined(HLSNAP_GUEST) && defined(__x86_64__)
#ifndef HLSNAP_KVM_IMPLEMENTATION_ONCE
#define HLSNAP_KVM_IMPLEMENTATION_ONCE

#ifdef __cplusplus
extern "C" {
#endif

/* ---- >>kvm-interface: numbers and structures as the kernel has them ---- */
/* <linux/kvm.h> is not used: in C++ its flexible arrays make some structures larger, and with them the request numbers
   wrong; and old ones lack what is needed. tests/ compares all of this with the header in C. */

#define HLSNAP__KVM_GET_API_VERSION 0xae00ul
#define HLSNAP__KVM_CREATE_VM 0xae01ul
#define HLSNAP__KVM_CHECK_EXTENSION 0xae03ul
#define HLSNAP__KVM_GET_VCPU_MMAP_SIZE 0xae04ul
#define HLSNAP__KVM_GET_SUPPORTED_CPUID 0xc008ae05ul
#define HLSNAP__KVM_CREATE_VCPU 0xae41ul
#define HLSNAP__KVM_SET_USER_MEMORY_REGION 0x4020ae46ul
#define HLSNAP__KVM_MEM_READONLY 2u
#define HLSNAP__KVM_RUN 0xae80ul
#define HLSNAP__KVM_SET_MSRS 0x4008ae89ul
#define HLSNAP__KVM_GET_TSC_KHZ 0xaea3ul
#define HLSNAP__KVM_SET_SIGNAL_MASK 0x4004ae8bul
#define HLSNAP__KVM_SET_CPUID2 0x4008ae90ul
#define HLSNAP__KVM_SET_DEBUGREGS 0x4080aea2ul
#define HLSNAP__KVM_GET_XSAVE 0x9000aea4ul
#define HLSNAP__KVM_SET_XSAVE 0x5000aea5ul
#define HLSNAP__KVM_SET_XCRS 0x4188aea7ul
#define HLSNAP__KVM_CAP_SYNC_REGS 74u
#define HLSNAP__KVM_CAP_IMMEDIATE_EXIT 136u
#define HLSNAP__ARCH_SET_GS 0x1001
#define HLSNAP__ARCH_SET_FS 0x1002
#define HLSNAP__ARCH_GET_FS 0x1003
#define HLSNAP__ARCH_GET_GS 0x1004
#define HLSNAP__KVM_EXIT_IO 2u
#define HLSNAP__KVM_EXIT_SHUTDOWN 8u
#define HLSNAP__KVM_EXIT_FAIL_ENTRY 9u
#define HLSNAP__KVM_EXIT_INTERNAL_ERROR 17u
#define HLSNAP__KVM_SYNC_REGS 1ull
#define HLSNAP__KVM_SYNC_SREGS 2ull
#define HLSNAP__KVM_SYNC_EVENTS 4ull

typedef struct hlsnap__kvm_regs {
    uint64_t rax, rbx, rcx, rdx, rsi, rdi, rsp, rbp, r8, r9, r10, r11, r12, r13, r14, r15, rip, rflags;
} hlsnap__kvm_regs;

typedef struct hlsnap__kvm_segment {
    uint64_t base;
    uint32_t limit;
    uint16_t selector;
    uint8_t type, present, dpl, db, s, l, g, avl, unusable, padding;
} hlsnap__kvm_segment;

typedef struct hlsnap__kvm_dtable {
    uint64_t base;
    uint16_t limit, padding[3];
} hlsnap__kvm_dtable;

typedef struct hlsnap__kvm_sregs {
    hlsnap__kvm_segment cs, ds, es, fs, gs, ss, tr, ldt;
    hlsnap__kvm_dtable gdt, idt;
    uint64_t cr0, cr2, cr3, cr4, cr8, efer, apic_base, interrupt_bitmap[4];
} hlsnap__kvm_sregs;

typedef struct hlsnap__kvm_events { /* all zero but for the flag is what a reset writes */
    uint8_t exception[8], interrupt[3], shadow, nmi[4];
    uint32_t sipi_vector, flags;
    uint8_t more[40];
} hlsnap__kvm_events;
#define HLSNAP__KVM_VALID_SHADOW 4u /* in flags: the shadow counts */

typedef struct hlsnap__kvm_run {
    uint8_t request_interrupt_window, immediate_exit, padding1[6];
    uint32_t exit_reason;
    uint8_t ready_for_interrupt_injection, if_flag;
    uint16_t flags;
    uint64_t cr8, apic_base;
    union {
        struct {
            uint8_t direction, size;
            uint16_t port;
            uint32_t count;
            uint64_t data_offset;
        } io;
        struct {
            uint64_t hardware_entry_failure_reason;
        } fail_entry;
        struct {
            uint32_t suberror;
        } internal;
        uint8_t padding[256];
    } exit;
    uint64_t valid_regs, dirty_regs;
    hlsnap__kvm_regs regs; /* the sync area */
    hlsnap__kvm_sregs sregs;
    hlsnap__kvm_events events;
} hlsnap__kvm_run;

typedef struct hlsnap__kvm_memory {
    uint32_t slot, flags;
    uint64_t gpa, size, hva;
} hlsnap__kvm_memory;
typedef struct hlsnap__kvm_cpuid_entry {
    uint32_t function, index, flags, eax, ebx, ecx, edx, padding[3];
} hlsnap__kvm_cpuid_entry;
#define HLSNAP__KVM_MAX_CPUID 256
typedef struct hlsnap__kvm_cpuid {
    uint32_t num, padding;
    hlsnap__kvm_cpuid_entry rows[HLSNAP__KVM_MAX_CPUID];
} hlsnap__kvm_cpuid;
typedef struct hlsnap__kvm_xcrs {
    uint32_t num, flags;
    struct {
        uint32_t xcr, reserved;
        uint64_t value;
    } rows[16];
    uint64_t padding[16];
} hlsnap__kvm_xcrs;
typedef struct hlsnap__kvm_msr {
    uint32_t index, reserved;
    uint64_t value;
} hlsnap__kvm_msr;
typedef struct hlsnap__kvm_msrs {
    uint32_t num, padding;
    hlsnap__kvm_msr rows[3];
} hlsnap__kvm_msrs;
typedef struct hlsnap__kvm_debugregs {
    uint64_t db[4], dr6, dr7, flags, reserved[9];
} hlsnap__kvm_debugregs;
typedef struct hlsnap__kvm_mask {
    uint32_t size;
    uint8_t bits[8];
} hlsnap__kvm_mask;
typedef struct hlsnap__kvm_sigevent {
    uint64_t value;
    int32_t signo, notify, tid, padding[11];
} hlsnap__kvm_sigevent;

HLSNAP__STATIC_ASSERT(kvm_sizes, sizeof(hlsnap__kvm_regs) == 144 && sizeof(hlsnap__kvm_sregs) == 312 &&
                                     sizeof(hlsnap__kvm_memory) == 32);
HLSNAP__STATIC_ASSERT(kvm_run, offsetof(hlsnap__kvm_run, exit) == 32 && offsetof(hlsnap__kvm_run, regs) == 304);
HLSNAP__STATIC_ASSERT(kvm_more, sizeof(hlsnap__kvm_xcrs) == 392 && sizeof(hlsnap__kvm_cpuid_entry) == 40 &&
                                    sizeof(hlsnap__kvm_sigevent) == 64 && sizeof(hlsnap__kvm_events) == 64 &&
                                    sizeof(hlsnap__kvm_debugregs) == 128);

/* ---- >>kvm-errors: what the kernel's refusals mean here ---- */

static const char *hlsnap__kvm_errno_text(int e) {
    switch (e) {
    case EAGAIN: return "no more tasks for this user or group (RLIMIT_NPROC, pids.max): KVM starts one for each VM";
    case EBUSY:
        return "another hypervisor (VirtualBox, VMware) uses the CPU's virtualization: end its VMs, unload its module";
    case EPERM:
    case EACCES: return "refused by a seccomp profile or security module: a container's must allow the ioctls of KVM";
    case ENOSYS: return "refused by a seccomp profile, or by a kernel that has it not";
    case EIO: return "the VM is of another process, or KVM has given it up";
    case EFAULT:
        return "memory of the guest could not be had: a file cut short, or no memory left in the group (memory.max)";
    case EMFILE: return "too many files are open in this process (RLIMIT_NOFILE)";
    case ENOMEM: return "out of memory, or of what the group may have (memory.max)";
    case ENOTTY: return "no KVM device";
    case EINVAL:
    case EOPNOTSUPP:
    case ENXIO: return "this KVM cannot do it";
    default: return hlsnap__errno_text(e);
    }
}

/* Whether it is the machine's state, which can change, or its kind. */
static hlsnap_result hlsnap__kvm_errno_code(int e) {
    if (e == ENOMEM) return HLSNAP_ERR_MEMORY;
    return e == EMFILE || e == ENFILE || e == EAGAIN || e == EINTR ? HLSNAP_ERR_OS : HLSNAP_ERR_HYPERVISOR;
}

static hlsnap_result hlsnap__kvm_fail(hlsnap_error *err, int e, const char *what) {
    return hlsnap__fail(err, hlsnap__kvm_errno_code(e), e, "%s: %s (errno %d)", what, hlsnap__kvm_errno_text(e), e);
}

/* The shell is of no use any more, for a reason that has no errno. */
static void hlsnap__kvm_dead(hlsnap__exit *x, hlsnap__exit_kind kind, const char *what, uint64_t detail) {
    x->kind = kind;
    x->dead = true;
    x->code = HLSNAP_ERR_HYPERVISOR;
    hlsnap__format(x->what, sizeof(x->what), "%s 0x%llx", what, (unsigned long long)detail);
}

/* The same after a system call that failed. */
static void hlsnap__kvm_lost(hlsnap__exit *x, int e, const char *what) {
    x->kind = HLSNAP__EXIT_DEAD;
    x->dead = true;
    x->code = hlsnap__kvm_errno_code(e);
    x->os_errno = e;
    hlsnap__format(x->what, sizeof(x->what), "%s: %s (errno %d)", what, hlsnap__kvm_errno_text(e), e);
}

/* ---- >>kvm-facts: what this machine's KVM can do, read once per process ---- */

typedef struct hlsnap__kvm_facts {
    uint32_t run_size; /* bytes of the shared page */
    uint64_t xcr0, cr4;
    uint32_t phys_bits; /* of guest-physical addresses */
    bool gate_scrubs; /* the CPU's XRSTOR clears all vector state, x87 pointers included: to be tried, in the gate */
    bool fsgsbase;    /* shown by CPUID, so CR4 may hold it */
    bool keys;        /* the host has protection keys: on software KVM guests may, too */
    uint8_t tss_type;
    hlsnap__kvm_cpuid cpuid;
} hlsnap__kvm_facts;

#define HLSNAP__KVM_STAR 0xc0000081u
#define HLSNAP__KVM_LSTAR 0xc0000082u
#define HLSNAP__KVM_SFMASK 0xc0000084u
#define HLSNAP__KVM_SYNC 7 /* general registers, segments and control registers, events: KVM_RUN takes them along */
#define HLSNAP__KVM_OWN_CODE 64u     /* in the gate page: for hlsnap__kvm_own_code */
#define HLSNAP__KVM_OWN_SPANS 0x600u /* likewise: what it is to touch, two words each, */
#define HLSNAP__KVM_MAX_SPANS 128u   /* so many at once, and an end */
#define HLSNAP__KVM_NO_GATE_SCRUB 1u /* quirk: take the slower way, as another CPU would make us */

enum hlsnap__kvm_syscall { HLSNAP__KVM_SYSCALL_UNTRIED, HLSNAP__KVM_SYSCALL_HARD, HLSNAP__KVM_SYSCALL_SOFT };
enum hlsnap__kvm_level { HLSNAP__KVM_LEVEL_UNTRIED, HLSNAP__KVM_LEVEL_SHOWN, HLSNAP__KVM_LEVEL_FAILS };
enum hlsnap__kvm_fsgsbase { HLSNAP__KVM_FSGSBASE_UNTRIED, HLSNAP__KVM_FSGSBASE_RUNS, HLSNAP__KVM_FSGSBASE_FAILS };
enum hlsnap__kvm_keys { HLSNAP__KVM_KEYS_UNTRIED, HLSNAP__KVM_KEYS_RUN, HLSNAP__KVM_KEYS_FAULT };
enum hlsnap__kvm_gate { HLSNAP__KVM_GATE_UNTRIED, HLSNAP__KVM_GATE_SCRUBS, HLSNAP__KVM_GATE_FAILS };

static const hlsnap__kvm_cpuid_entry *hlsnap__kvm_leaf(const hlsnap__kvm_cpuid *c, uint32_t function, uint32_t index) {
    static const hlsnap__kvm_cpuid_entry none = {0, 0, 0, 0, 0, 0, 0, {0, 0, 0}};
    uint32_t i;
    for (i = 0; i < c->num; i++)
        if (c->rows[i].function == function && c->rows[i].index == index) return &c->rows[i];
    return &none;
}

/* Guests get what KVM supports, but for AMX, whose state would take a permission from the kernel and 8 KiB per switch. */
static void hlsnap__kvm_cpuid_trim(hlsnap__kvm_cpuid *c) {
    uint32_t i;
    for (i = 0; i < c->num; i++) {
        hlsnap__kvm_cpuid_entry *e = &c->rows[i];
        if (e->function == 7 && e->index == 0) e->edx &= ~(1u << 22 | 1u << 24 | 1u << 25);
        if (e->function == 0xd && e->index == 0) e->eax &= 0xe7;
        if (e->function == 0xd && e->index > 16) e->eax = e->ebx = e->ecx = e->edx = 0;
    }
}

/* QEMU's software SVM checks port rights only with a TSS of type 9, available, where hardware wants 11, busy. */
static bool hlsnap__kvm_is_tcg(void) {
    uint32_t r[4];
    hlsnap__cpuid(1, 0, r);
    if (!(r[2] >> 31)) return false;
    hlsnap__cpuid(0x40000000u, 0, r);
    return memcmp(&r[1], "TCGT", 4) == 0 && memcmp(&r[2], "CGTC", 4) == 0 && memcmp(&r[3], "GTCG", 4) == 0;
}

/* May a compacted XRSTOR at CPL 3 initialise all vector state? Asked of the CPU, not of KVM: software KVM offers guests no
   XSAVE, and yet they have it, with all its state. AMD CPUs before XSAVEERPTR leave the x87 pointers alone. Whether it does
   so on this KVM is tried before it is relied on: hlsnap__kvm_gate_try. */
static bool hlsnap__kvm_xrstor_scrubs(void) {
    uint32_t r[4], vendor;
    hlsnap__cpuid(0, 0, r);
    vendor = r[1];
    if (r[0] < 0xd) return false;
    hlsnap__cpuid(0xd, 1, r);
    if (!(r[0] >> 1 & 1)) return false;     /* XSAVEC */
    if (vendor == 0x756e6547u) return true; /* GenuineIntel */
    hlsnap__cpuid(0x80000008u, 0, r);
    return r[1] >> 2 & 1;
}

/* Has the host's kernel switched protection keys on? Software KVM runs guests with the host's CR4. */
static bool hlsnap__kvm_has_keys(void) {
    uint32_t r[4];
    hlsnap__cpuid(0, 0, r);
    if (r[0] < 7) return false;
    hlsnap__cpuid(7, 0, r);
    return r[2] >> 4 & 1; /* OSPKE */
}

static hlsnap_result hlsnap__kvm_facts_read(int kvm, hlsnap__kvm_facts *f, hlsnap_error *err) {
    const hlsnap__kvm_cpuid_entry *leaf7;
    const int version = hlsnap__ioctl(kvm, HLSNAP__KVM_GET_API_VERSION, 0);
    const int size = version < 0 ? -1 : hlsnap__ioctl(kvm, HLSNAP__KVM_GET_VCPU_MMAP_SIZE, 0);
    int sync, immediate;
    if (size < 0) return hlsnap__kvm_fail(err, errno, "asking /dev/kvm");
    sync = hlsnap__ioctl(kvm, HLSNAP__KVM_CHECK_EXTENSION, HLSNAP__KVM_CAP_SYNC_REGS);
    immediate = hlsnap__ioctl(kvm, HLSNAP__KVM_CHECK_EXTENSION, HLSNAP__KVM_CAP_IMMEDIATE_EXIT);
    if (sync < 0 || immediate < 0) return hlsnap__kvm_fail(err, errno, "KVM_CHECK_EXTENSION");
    if (version != 12 || size < (int)sizeof(hlsnap__kvm_run) || !immediate ||
        (sync & HLSNAP__KVM_SYNC) != HLSNAP__KVM_SYNC)
        return hlsnap__fail(err, HLSNAP_ERR_HYPERVISOR, 0,
                            "this KVM lacks what hlsnap needs: version %d, run page of %d bytes, immediate_exit %d, "
                            "sync_regs 0x%x",
                            version, size, immediate, (unsigned)sync);
    memset(f, 0, sizeof(*f));
    f->cpuid.num = HLSNAP__KVM_MAX_CPUID;
    if (hlsnap__ioctl(kvm, HLSNAP__KVM_GET_SUPPORTED_CPUID, (uintptr_t)&f->cpuid) < 0)
        return hlsnap__kvm_fail(err, errno, "KVM_GET_SUPPORTED_CPUID");
    f->run_size = (uint32_t)size;
    hlsnap__kvm_cpuid_trim(&f->cpuid);
    f->cr4 = 1u << 5 | 1u << 9 | 1u << 10; /* PAE, OSFXSR, OSXMMEXCPT */
    if (hlsnap__kvm_leaf(&f->cpuid, 1, 0)->ecx >> 26 & 1) {
        f->cr4 |= 1u << 18; /* OSXSAVE */
        f->xcr0 = hlsnap__kvm_leaf(&f->cpuid, 0xd, 0)->eax & 0xe7u;
    }
    leaf7 = hlsnap__kvm_leaf(&f->cpuid, 7, 0); /* UMIP, SMEP, SMAP where there are */
    f->cr4 |= (leaf7->ecx >> 2 & 1u) << 11 | (leaf7->ebx >> 7 & 1u) << 20 | (leaf7->ebx >> 20 & 1u) << 21;
    f->fsgsbase = leaf7->ebx & 1;
    f->phys_bits = hlsnap__kvm_leaf(&f->cpuid, 0x80000008u, 0)->eax & 0xff;
    if (f->phys_bits < 36 || f->phys_bits > 52) f->phys_bits = 36;
    f->gate_scrubs = hlsnap__kvm_xrstor_scrubs();
    f->keys = hlsnap__kvm_has_keys();
    f->tss_type = hlsnap__kvm_is_tcg() ? 9 : 11;
    return HLSNAP_OK;
}

/* Published once, then read-only: the one piece of process-wide state besides hlsnap__cpu_features'. */
static hlsnap__kvm_facts hlsnap__kvm_facts_published;
static int32_t hlsnap__kvm_facts_state; /* 0 nobody, 1 being written, 2 ready */
/* What was tried, atomic: 0, or an hlsnap__kvm_gate and an hlsnap__kvm_level for each CPU level, and so on. */
static int32_t hlsnap__kvm_facts_gate[HLSNAP_CPU_V4 + 1], hlsnap__kvm_facts_levels[HLSNAP_CPU_V4 + 1];
static int32_t hlsnap__kvm_facts_syscall, hlsnap__kvm_facts_fsgsbase, hlsnap__kvm_facts_keys;

/* The facts, from the published copy or, while another thread is still writing that, from *own. */
static hlsnap_result hlsnap__kvm_facts_get(int kvm, hlsnap__kvm_facts *own, const hlsnap__kvm_facts **out,
                                           hlsnap_error *err) {
    int32_t nobody = 0;
    hlsnap_result r;
    *out = &hlsnap__kvm_facts_published;
    if (__atomic_load_n(&hlsnap__kvm_facts_state, __ATOMIC_ACQUIRE) == 2) return HLSNAP_OK;
    r = hlsnap__kvm_facts_read(kvm, own, err);
    *out = own;
    if (r ||
        !__atomic_compare_exchange_n(&hlsnap__kvm_facts_state, &nobody, 1, false, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED))
        return r;
    hlsnap__kvm_facts_published = *own;
    __atomic_store_n(&hlsnap__kvm_facts_state, 2, __ATOMIC_RELEASE);
    return HLSNAP_OK;
}

/* ---- >>kvm-levels: what a guest is shown of the CPU, when its desc names a level ---- */

/* Bits of a CPUID register that stay at a level: those of the level's features, and `keep`. */
static uint32_t hlsnap__kvm_level_bits(uint32_t level, uint32_t leaf, uint32_t reg, uint32_t keep) {
    const uint64_t features = hlsnap__cpu_level_features(level);
    uint32_t i;
    for (i = 0; i < HLSNAP__NUM_CPU_FEATURES; i++) {
        const struct hlsnap__cpu_row *row = &hlsnap__cpu_rows[i];
        if (features >> i & 1 && row->leaf == leaf && row->reg == reg) keep |= 1u << row->bit;
    }
    return keep;
}

/* Features of the rows that a table has. */
static uint64_t hlsnap__kvm_cpuid_features(const hlsnap__kvm_cpuid *c, uint64_t xcr0) {
    uint64_t found = 0;
    uint32_t i;
    for (i = 0; i < HLSNAP__NUM_CPU_FEATURES; i++) {
        const struct hlsnap__cpu_row *row = &hlsnap__cpu_rows[i];
        const hlsnap__kvm_cpuid_entry *e = hlsnap__kvm_leaf(c, row->leaf, 0);
        const uint32_t r[4] = {e->eax, e->ebx, e->ecx, e->edx};
        if (r[row->reg] >> row->bit & 1 && (xcr0 & row->xcr0) == row->xcr0) found |= 1ull << i;
    }
    return found;
}

/* The state that XSAVE has: from level v3 on, XSAVE without its extensions; below, it is not there. */
static void hlsnap__kvm_level_xsave(hlsnap__kvm_cpuid_entry *e, const hlsnap__kvm_facts *f) {
    uint32_t size = 576, i;
    if (f->xcr0 && e->index == 0) {
        for (i = 2; i < 8; i++) {
            const hlsnap__kvm_cpuid_entry *part = hlsnap__kvm_leaf(&f->cpuid, 0xd, i);
            if (f->xcr0 >> i & 1 && part->ebx + part->eax > size) size = part->ebx + part->eax;
        }
        e->eax = (uint32_t)f->xcr0;
        e->ebx = e->ecx = size;
        e->edx = 0;
    } else if (!f->xcr0 || e->index < 2 || e->index > 7 || !(f->xcr0 >> e->index & 1))
        e->eax = e->ebx = e->ecx = e->edx = 0;
}

/* What stays of a leaf. Bits that only a kernel asks for stay where KVM asks for them, too: it lets CR4 and EFER hold what
   CPUID shows. What is not named here is hidden, or says nothing about instructions: names, sizes, caches, frequencies. */
static void hlsnap__kvm_level_leaf(hlsnap__kvm_cpuid_entry *e, uint32_t level, const hlsnap__kvm_facts *f) {
    switch (e->function) {
    case 1: /* hypervisor, x2APIC; CLFLUSH, FXSR and all that is older */
        e->ecx &= hlsnap__kvm_level_bits(level, 1, 2, 1u << 31 | 1u << 21 | (f->xcr0 ? 1u << 26 : 0));
        e->edx &= 0x178bfbffu;
        break;
    case 7: /* FSGSBASE, SMEP, SMAP, UMIP, and how x87 pointers behave */
        e->eax = 0;
        e->ebx &= e->index ? 0 : hlsnap__kvm_level_bits(level, 7, 1, 1u | 1u << 6 | 1u << 7 | 1u << 13 | 1u << 20);
        e->ecx &= e->index ? 0 : hlsnap__kvm_level_bits(level, 7, 2, 1u << 2);
        e->edx &= e->index ? 0 : hlsnap__kvm_level_bits(level, 7, 3, 0);
        break;
    case 0xd: hlsnap__kvm_level_xsave(e, f); break;
    case 0x80000001u: /* LAHF from v2 on, topology; SYSCALL, NX, pages of 1 GiB, long mode, AMD's copy of leaf 1 */
        e->ecx &= hlsnap__kvm_level_bits(level, 0x80000001u, 2, 0x00400002u | (level >= HLSNAP_CPU_V2 ? 1 : 0));
        e->edx &= 0x0183f3ffu | 1u << 11 | 1u << 20 | 1u << 26 | 1u << 29;
        break;
    case 0x80000007u: /* a time stamp counter that never changes its pace */
        e->eax = e->ebx = e->ecx = 0;
        e->edx &= 1u << 8;
        break;
    case 0x80000008u: e->ebx = e->edx = 0; break;
    default:
        if (e->function <= 6 || e->function == 0xb || e->function == 0x15 || e->function == 0x16 ||
            e->function == 0x1f || e->function >> 8 == 0x400000 ||
            (e->function >= 0x80000000u && e->function <= 0x80000006u) || e->function == 0x8000001du ||
            e->function == 0x8000001eu)
            break;
        e->eax = e->ebx = e->ecx = e->edx = 0;
    }
}

/* Below v3 there is no XSAVE, and CR4 says so: AVX faults, and so does XGETBV. */
static void hlsnap__kvm_level_set(hlsnap__kvm_facts *f, uint32_t level) {
    uint32_t i;
    f->xcr0 &= level < HLSNAP_CPU_V3 ? 0 : level < HLSNAP_CPU_V4 ? 7 : 0xe7;
    if (!f->xcr0) f->cr4 &= ~(1ull << 18); /* OSXSAVE */
    if (!f->xcr0) f->gate_scrubs = false;
    for (i = 0; i < f->cpuid.num; i++) hlsnap__kvm_level_leaf(&f->cpuid.rows[i], level, f);
}

/* ---- >>kvm-shell: one VM with one vCPU ---- */

#define HLSNAP__KVM_HELD 16

struct hlsnap__shell {
    int vm, vcpu;
    hlsnap__kvm_run *run;
    size_t run_size;
    uint32_t phys_bits;
    bool gate_scrubs;     /* it is to be tried, or was and does */
    bool fsgsbase;        /* see hlsnap__kvm_facts */
    bool keys;            /* to be tried; once it was, PKRU is the guest's to write */
    uint32_t cpu;         /* hlsnap_cpu; of a level: */
    uint64_t xcr0, lacks; /* what it shows; features that this KVM offers no guest */
    uint32_t shown[5];    /* CPUID 1 ecx, edx, 7 ebx, ecx, edx */
    uint64_t lstar;       /* as last written */
    uint64_t tsc_scale;   /* 0 = not asked yet */
    bool again;           /* interrupted before the guest began: the next run begins with: */
    hlsnap__entry entry;
    const uint8_t *sys;      /* the supervisor area, for the exception frames */
    hlsnap__kvm_sregs sregs; /* what every reset writes; fs.base apart */
    int signal;
    uint64_t mask; /* signals blocked while the guest runs, as KVM was told */
    bool mask_set;
    uint64_t old_mask; /* of the thread, during a call */
    bool used;         /* a guest has run on it */
    bool reported;     /* the last KVM_RUN left its registers in the run page */
    bool debugged;     /* a debug exception was taken: DR6 tells of it */
    bool armed;        /* a signal can end the call in progress */
    int32_t pid, tid; /* of the thread in a call */
    uint64_t deadlines[HLSNAP__CLOCKS];
    int32_t timers[HLSNAP__CLOCKS]; /* kernel timers of the call in progress */
    bool timer_made[HLSNAP__CLOCKS];
    bool outer;        /* the time limit of a call around this one ran out, and the call does not know yet */
    int32_t kicked;    /* atomic: a cancel came during this call */
    bool kick_seen;    /* ... and its signal was consumed */
    bool cancel_tried; /* what a cancel needs is there */
    uint32_t num_held; /* signals of others that came in while the guest ran, to be given back */
    siginfo_t held[HLSNAP__KVM_HELD];
};

/* Why /dev/kvm, which is there, may not be used, and what to do about it. */
static void hlsnap__kvm_open_denied(int e, hlsnap_error *err) {
    struct stat st;
    const bool known = stat("/dev/kvm", &st) == 0;
    const unsigned mode = known ? st.st_mode & 0777u : 0, gid = known ? st.st_gid : 0;
    if (known && (mode & 060) == 060 && gid != 0 && gid != 65534)
        hlsnap__fail(err, HLSNAP_ERR_HYPERVISOR, e,
                     "no permission to open /dev/kvm (group %u, mode %03o): run `sudo usermod -aG \"$(stat -c %%G "
                     "/dev/kvm)\" \"$USER\"` and log in again; in a container, --group-add %u",
                     gid, mode, gid);
    else
        hlsnap__fail(err, HLSNAP_ERR_HYPERVISOR, e,
                     "no permission to open /dev/kvm (group %u, mode %03o): no group of its own may use it; run `sudo "
                     "setfacl -m u:$USER:rw /dev/kvm`, or have udev make it KERNEL==\"kvm\", GROUP=\"kvm\", "
                     "MODE=\"0660\"; in a container, give its user the device",
                     gid, mode);
}

static int hlsnap__kvm_open(hlsnap_error *err) {
    const int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC), e = errno;
    struct stat st;
    if (fd >= 0 && (fstat(fd, &st) || S_ISCHR(st.st_mode))) return fd;
    if (fd >= 0) {
        close(fd);
        hlsnap__fail(err, HLSNAP_ERR_HYPERVISOR, ENOTTY,
                     "/dev/kvm is no device but a file: a container needs --device /dev/kvm, not a volume");
    } else if (e == ENOENT)
        hlsnap__fail(err, HLSNAP_ERR_HYPERVISOR, e,
                     "there is no /dev/kvm: run `sudo modprobe kvm_intel` or `sudo modprobe kvm_amd`; if that fails, "
                     "switch virtualization on in the firmware, or in the host of this VM; in a container, start it "
                     "with --device /dev/kvm");
    else if (e == EACCES)
        hlsnap__kvm_open_denied(e, err);
    else if (e == EPERM)
        hlsnap__fail(err, HLSNAP_ERR_HYPERVISOR, e,
                     "opening /dev/kvm is not permitted: this container or service has no right to the device: start "
                     "it with --device /dev/kvm, or DeviceAllow=/dev/kvm rw in its unit");
    else if (e == ENODEV || e == ENXIO)
        hlsnap__fail(err, HLSNAP_ERR_HYPERVISOR, e,
                     "there is no KVM behind /dev/kvm (errno %d): run `sudo modprobe kvm_intel` or `sudo modprobe "
                     "kvm_amd`",
                     e);
    else
        hlsnap__kvm_fail(err, e, "opening /dev/kvm");
    return -1;
}

static void hlsnap__kvm_segment_set(hlsnap__kvm_segment *s, uint16_t selector, uint8_t type, uint8_t is_code) {
    memset(s, 0, sizeof(*s));
    s->limit = 0xffffffffu;
    s->selector = selector;
    s->type = type;
    s->present = 1;
    s->dpl = 3;
    s->db = (uint8_t)!is_code;
    s->s = 1;
    s->l = is_code;
    s->g = 1;
}

/* The constant part of a vCPU's state: CPL 3, long mode, nothing that a guest or a file has a say in. */
static void hlsnap__kvm_sregs_set(hlsnap__kvm_sregs *s, const hlsnap__kvm_facts *f) {
    memset(s, 0, sizeof(*s));
    hlsnap__kvm_segment_set(&s->cs, HLSNAP__SEL_CODE3, 11, 1);
    hlsnap__kvm_segment_set(&s->ss, HLSNAP__SEL_DATA3, 3, 0);
    s->ds = s->es = s->fs = s->gs = s->ss;
    s->tr.base = HLSNAP__SYS_AT(HLSNAP__SYS_TABLES) + HLSNAP__TSS_OFFSET;
    s->tr.limit = HLSNAP__TSS_SIZE - 1;
    s->tr.selector = HLSNAP__SEL_TSS;
    s->tr.type = f->tss_type;
    s->tr.present = 1;
    s->ldt.unusable = 1;
    s->gdt.base = HLSNAP__SYS_AT(HLSNAP__SYS_TABLES);
    s->gdt.limit = HLSNAP__GDT_SIZE - 1;
    s->idt.base = HLSNAP__SYS_AT(HLSNAP__SYS_TABLES) + HLSNAP__IDT_OFFSET;
    s->idt.limit = HLSNAP__NUM_VECTORS * 16 - 1;
    s->cr0 = 0x80050033u; /* PG AM WP NE ET MP PE */
    s->cr3 = HLSNAP__SYS_PHYS(HLSNAP__SYS_PAGING);
    s->cr4 = f->cr4;
    s->efer = 0xd00; /* NXE LMA LME; SCE as hlsnap__kvm_state_set has it */
    s->apic_base = 0xfee00900u;
}

static void hlsnap__kvm_destroy(hlsnap__shell *shell, bool forked) {
    if (shell->run && !forked) munmap(shell->run, shell->run_size);
    if (shell->vcpu >= 0) close(shell->vcpu);
    if (shell->vm >= 0) close(shell->vm);
    hlsnap__free(shell);
}

/* KVM says how many of them it has set, and not why it refused the next one. */
static bool hlsnap__kvm_msrs_set(const hlsnap__shell *shell, const hlsnap__kvm_msrs *msrs) {
    const int set = hlsnap__ioctl(shell->vcpu, HLSNAP__KVM_SET_MSRS, (uintptr_t)msrs);
    if (set >= 0 && (uint32_t)set < msrs->num) errno = EINVAL;
    return set == (int)msrs->num;
}

/* Where SYSCALL leads; where that is not a fault, also with what segments and flags. */
static bool hlsnap__kvm_lstar_set(hlsnap__shell *shell, uint64_t lstar) {
    const uint64_t star = (uint64_t)HLSNAP__SEL_CODE0 << 32 | (uint64_t)(HLSNAP__SEL_DATA3 - 8) << 48;
    const hlsnap__kvm_msrs msrs = {
        lstar == HLSNAP__SYSCALL_GVA ? 1u : 3u,
        0,
        {{HLSNAP__KVM_LSTAR, 0, lstar}, {HLSNAP__KVM_STAR, 0, star}, {HLSNAP__KVM_SFMASK, 0, 0x257fd5}}};
    if (shell->lstar == lstar) return true;
    if (!hlsnap__kvm_msrs_set(shell, &msrs)) return false;
    shell->lstar = lstar;
    return true;
}

/* CPUID first: what CR4 and XCR0 may hold depends on it. */
static hlsnap_result hlsnap__kvm_vcpu_setup(hlsnap__shell *shell, const hlsnap__kvm_facts *f, hlsnap_error *err) {
    hlsnap__kvm_xcrs xcrs;
    memset(&xcrs, 0, sizeof(xcrs));
    xcrs.num = 1;
    xcrs.rows[0].value = f->xcr0;
    if (hlsnap__ioctl(shell->vcpu, HLSNAP__KVM_SET_CPUID2, (uintptr_t)&f->cpuid) < 0)
        return hlsnap__kvm_fail(err, errno, "KVM_SET_CPUID2");
    if (f->xcr0 && hlsnap__ioctl(shell->vcpu, HLSNAP__KVM_SET_XCRS, (uintptr_t)&xcrs) < 0)
        return hlsnap__kvm_fail(err, errno, "KVM_SET_XCRS");
    return hlsnap__kvm_lstar_set(shell, HLSNAP__SYSCALL_GVA) ? HLSNAP_OK
                                                             : hlsnap__kvm_fail(err, errno, "KVM_SET_MSRS of LSTAR");
}

static hlsnap_result hlsnap__kvm_vm_create(hlsnap__shell *shell, int kvm, const hlsnap__kvm_facts *f,
                                           hlsnap_error *err) {
    void *run;
    do shell->vm = hlsnap__ioctl(kvm, HLSNAP__KVM_CREATE_VM, 0);
    while (shell->vm < 0 && errno == EINTR);
    if (shell->vm < 0) return hlsnap__kvm_fail(err, errno, "KVM_CREATE_VM");
    shell->vcpu = hlsnap__ioctl(shell->vm, HLSNAP__KVM_CREATE_VCPU, 0);
    if (shell->vcpu < 0) return hlsnap__kvm_fail(err, errno, "KVM_CREATE_VCPU");
    run = mmap(NULL, f->run_size, PROT_READ | PROT_WRITE, MAP_SHARED, shell->vcpu, 0);
    if (run == MAP_FAILED) return hlsnap__fail_map(err, f->run_size, "the vCPU's run page");
    shell->run = (hlsnap__kvm_run *)run;
    shell->run_size = f->run_size;
    if (madvise(run, f->run_size, MADV_DONTFORK))
        return hlsnap__fail(err, HLSNAP_ERR_OS, errno, "MADV_DONTFORK: %s (errno %d)", hlsnap__errno_text(errno),
                            errno);
    hlsnap__kvm_sregs_set(&shell->sregs, f);
    shell->run->valid_regs = HLSNAP__KVM_SYNC;
    return hlsnap__kvm_vcpu_setup(shell, f, err);
}

/* Facts for a level, and what a shell has to remember of them. */
static void hlsnap__kvm_shell_level(hlsnap__shell *shell, uint32_t cpu, hlsnap__kvm_facts *own,
                                    const hlsnap__kvm_facts **f) {
    const hlsnap__kvm_cpuid_entry *one, *seven;
    shell->cpu = cpu;
    if (cpu) {
        if (*f != own) *own = **f;
        hlsnap__kvm_level_set(own, cpu);
        one = hlsnap__kvm_leaf(&own->cpuid, 1, 0);
        seven = hlsnap__kvm_leaf(&own->cpuid, 7, 0);
        shell->shown[0] = one->ecx;
        shell->shown[1] = one->edx;
        shell->shown[2] = seven->ebx;
        shell->shown[3] = seven->ecx;
        shell->shown[4] = seven->edx;
        shell->lacks = hlsnap__cpu_level_features(cpu) & ~hlsnap__kvm_cpuid_features(&own->cpuid, own->xcr0);
        *f = own;
    }
    shell->xcr0 = (*f)->xcr0;
}

static hlsnap_result hlsnap__kvm_create(const hlsnap_hypervisor *hv, int cancel_signal, uint32_t cpu,
                                        hlsnap__shell **out, hlsnap_error *err) {
    const bool known = !cpu && __atomic_load_n(&hlsnap__kvm_facts_state, __ATOMIC_ACQUIRE) == 2;
    hlsnap__kvm_facts *own = known ? NULL : (hlsnap__kvm_facts *)hlsnap__alloc(1, sizeof(*own), err);
    hlsnap__shell *shell = known || own ? (hlsnap__shell *)hlsnap__alloc(1, sizeof(*shell), err) : NULL;
    const hlsnap__kvm_facts *f = NULL;
    hlsnap_result r = shell ? HLSNAP_OK : HLSNAP_ERR_MEMORY;
    hlsnap_error why;
    const int kvm = r ? -1 : hlsnap__kvm_open(&why);
    *out = NULL;
    if (shell) shell->vm = shell->vcpu = -1;
    if (!r && kvm < 0) {
        r = why.code;
        if (err) *err = why;
    }
    if (!r) r = hlsnap__kvm_facts_get(kvm, own, &f, err);
    if (!r) {
        hlsnap__kvm_shell_level(shell, cpu, own, &f);
        shell->signal = cancel_signal;
        shell->fsgsbase = f->fsgsbase;
        shell->phys_bits = f->phys_bits;
        shell->keys = f->keys;
        shell->gate_scrubs = f->gate_scrubs && !(hv->quirks & HLSNAP__KVM_NO_GATE_SCRUB);
        r = hlsnap__kvm_vm_create(shell, kvm, f, err);
    }
    if (kvm >= 0) close(kvm);
    hlsnap__free(own);
    if (r && shell)
        hlsnap__kvm_destroy(shell, false);
    else
        *out = shell;
    return r;
}

static hlsnap_result hlsnap__kvm_map(hlsnap__shell *shell, const hlsnap__slot *slot, hlsnap_error *err) {
    const uint64_t end = slot->gpa + slot->size;
    hlsnap__kvm_memory m;
    m.slot = slot->number;
    m.flags = slot->readonly ? HLSNAP__KVM_MEM_READONLY : 0;
    m.gpa = slot->gpa;
    m.size = slot->size;
    m.hva = (uint64_t)(uintptr_t)slot->hva;
    if (!slot->number) shell->sys = (const uint8_t *)slot->hva;
    if (slot->size && end > 1ull << shell->phys_bits)
        return hlsnap__fail(err, HLSNAP_ERR_LIMIT, 0,
                            "guest memory up to 0x%llx: guests have physical addresses of %u bits on this machine",
                            (unsigned long long)end, shell->phys_bits);
    if (hlsnap__ioctl(shell->vm, HLSNAP__KVM_SET_USER_MEMORY_REGION, (uintptr_t)&m) == 0) return HLSNAP_OK;
    return hlsnap__fail(err, hlsnap__kvm_errno_code(errno), errno,
                        "a memory slot of 0x%llx bytes at 0x%llx: %s (errno %d)", (unsigned long long)m.size,
                        (unsigned long long)m.gpa, hlsnap__kvm_errno_text(errno), errno);
}

/* ---- >>kvm-signals: cancel and time limit, without a handler ---- */

/* Calls of this process, atomic, that have their signal blocked on the thread they are made on. */
static uint32_t hlsnap__kvm_num_armed;

static uint64_t hlsnap__kvm_signal_bit(const hlsnap__shell *shell) { return 1ull << (shell->signal - 1); }

static hlsnap_result hlsnap__kvm_sigmask(int how, const uint64_t *mask, uint64_t *old, hlsnap_error *err) {
    if (syscall(SYS_rt_sigprocmask, how, mask, old, sizeof(*mask)) == 0) return HLSNAP_OK;
    return hlsnap__fail(err, HLSNAP_ERR_OS, errno, "rt_sigprocmask: %s (errno %d)", hlsnap__errno_text(errno), errno);
}

/* In the value of our signals, above the shell's address, which has 47 bits. */
#define HLSNAP__KVM_TAG (0x4853ull << 48)

/* Keeps a signal of somebody else's until the call ends. Of those that have no queue one for the thread and one for the process
   is all that could be pending. */
static void hlsnap__kvm_hold(hlsnap__shell *shell, const siginfo_t *info) {
    uint32_t i;
    for (i = 0; i < shell->num_held; i++)
        if (shell->signal == SIGURG && (shell->held[i].si_code == SI_TKILL) == (info->si_code == SI_TKILL)) return;
    if (shell->num_held < HLSNAP__KVM_HELD) shell->held[shell->num_held++] = *info;
}

/* Consumes the pending cancel signals of this thread and keeps those that are not ours. *outer: one came from the timer of
   another shell, or from its cancel: that of a call around this one. Of a kick that found the signal queue full SI_USER of
   nobody is what is left. false and errno: they cannot be consumed. */
static bool hlsnap__kvm_drain(hlsnap__shell *shell, bool *outer) {
    static const struct timespec now = {0, 0};
    const bool kicked = __atomic_load_n(&shell->kicked, __ATOMIC_RELAXED) != 0;
    const uint64_t set = hlsnap__kvm_signal_bit(shell);
    siginfo_t info;
    while (shell->armed) { /* else nothing of ours can be pending, and the signal is not blocked */
        const bool got = syscall(SYS_rt_sigtimedwait, &set, &info, &now, sizeof(set)) > 0;
        const uint64_t value = got ? (uint64_t)(uintptr_t)info.si_value.sival_ptr : 0;
        if (!got && errno == EINTR) continue;
        if (!got) return errno == EAGAIN;
        if ((info.si_code == SI_TIMER || info.si_code == SI_QUEUE) && value >> 48 == HLSNAP__KVM_TAG >> 48)
            *outer = *outer || value != (HLSNAP__KVM_TAG | (uint64_t)(uintptr_t)shell);
        else if (kicked && !shell->kick_seen && info.si_code == SI_USER && !info.si_pid)
            shell->kick_seen = true;
        else
            hlsnap__kvm_hold(shell, &info);
    }
    return true;
}

/* Gives back what was sent to this thread, or process, by others. */
static void hlsnap__kvm_give_back(hlsnap__shell *shell) {
    uint32_t i;
    for (i = 0; i < shell->num_held; i++) {
        siginfo_t *info = &shell->held[i];
        if (info->si_code == SI_TKILL)
            syscall(SYS_rt_tgsigqueueinfo, shell->pid, shell->tid, shell->signal, info);
        else
            syscall(SYS_rt_sigqueueinfo, shell->pid, shell->signal, info);
    }
    shell->num_held = 0;
}

/* A timer that signals this thread, made anew for each call: one kept would be silent on another thread, and also on one
   that was given the number of a thread that ended. */
static hlsnap_result hlsnap__kvm_timer_make(hlsnap__shell *shell, hlsnap__clock clock, hlsnap_error *err) {
    hlsnap__kvm_sigevent e;
    if (shell->timer_made[clock]) return HLSNAP_OK;
    memset(&e, 0, sizeof(e));
    e.value = HLSNAP__KVM_TAG | (uint64_t)(uintptr_t)shell;
    e.signo = shell->signal;
    e.notify = 4; /* SIGEV_THREAD_ID */
    e.tid = shell->tid;
    shell->timer_made[clock] = syscall(SYS_timer_create, hlsnap__clock_ids[clock], &e, &shell->timers[clock]) == 0;
    if (shell->timer_made[clock]) return HLSNAP_OK;
    return hlsnap__fail(err, HLSNAP_ERR_OS, errno, "timer_create: %s (errno %d)",
                        errno == EAGAIN ? "no more signals may be queued for this user (RLIMIT_SIGPENDING)"
                                        : hlsnap__errno_text(errno),
                        errno);
}

static hlsnap_result hlsnap__kvm_timer_arm(hlsnap__shell *shell, hlsnap__clock clock, hlsnap_error *err) {
    const uint64_t second = 1000000000u, most = (uint64_t)INT64_MAX / second / 2, at = shell->deadlines[clock];
    struct itimerspec when;
    hlsnap_result r = hlsnap__kvm_timer_make(shell, clock, err);
    memset(&when, 0, sizeof(when));
    when.it_value.tv_sec = (time_t)(at / second < most ? at / second : most);
    when.it_value.tv_nsec = (long)(at % second);
    if (r || syscall(SYS_timer_settime, shell->timers[clock], TIMER_ABSTIME, &when, NULL) == 0) return r;
    return hlsnap__fail(err, HLSNAP_ERR_OS, errno, "timer_settime: %s (errno %d)", hlsnap__errno_text(errno), errno);
}

static void hlsnap__kvm_end(hlsnap__shell *shell) {
    const bool kicked = __atomic_load_n(&shell->kicked, __ATOMIC_RELAXED) != 0;
    bool silent = true, outer = false;
    uint32_t i;
    for (i = 0; i < HLSNAP__CLOCKS; i++)
        if (shell->timer_made[i]) silent = syscall(SYS_timer_delete, shell->timers[i]) == 0 && silent;
    /* what was sent is pending by now: no timer can fire early, a cancel returned before the call could end */
    if (shell->armed && (kicked || hlsnap__overdue(shell->deadlines) != HLSNAP__CLOCKS))
        silent = hlsnap__kvm_drain(shell, &outer) && silent;
    hlsnap__kvm_give_back(shell);
    __atomic_store_n(&shell->run->immediate_exit, 0, __ATOMIC_RELAXED);
    /* one of ours that is pending, or still to come, could end the process: then the signal stays blocked, and counted */
    if (shell->armed && silent) {
        if (!(shell->old_mask & hlsnap__kvm_signal_bit(shell)))
            hlsnap__kvm_sigmask(2 /* SIG_SETMASK */, &shell->old_mask, NULL, NULL);
        __atomic_fetch_sub(&hlsnap__kvm_num_armed, 1, __ATOMIC_RELAXED);
    }
    shell->armed = shell->kick_seen = shell->outer = false;
    __atomic_store_n(&shell->kicked, 0, __ATOMIC_RELAXED);
    for (i = 0; i < HLSNAP__CLOCKS; i++) shell->deadlines[i] = shell->timer_made[i] = 0;
}

/* Tells KVM which signals to block while the guest runs: the thread's own, less the cancel signal. */
static hlsnap_result hlsnap__kvm_mask_set(hlsnap__shell *shell, hlsnap_error *err) {
    const uint64_t mask = shell->old_mask & ~hlsnap__kvm_signal_bit(shell);
    hlsnap__kvm_mask m;
    if (shell->mask_set && shell->mask == mask) return HLSNAP_OK;
    m.size = sizeof(m.bits);
    memcpy(m.bits, &mask, sizeof(m.bits));
    if (hlsnap__ioctl(shell->vcpu, HLSNAP__KVM_SET_SIGNAL_MASK, (uintptr_t)&m) < 0)
        return hlsnap__kvm_fail(err, errno, "KVM_SET_SIGNAL_MASK");
    shell->mask = mask;
    shell->mask_set = true;
    return HLSNAP_OK;
}

/* What a cancel needs is tried while that can still be said: its own failure would leave a guest running for ever. A realtime
   signal could be refused by a queue that is full; that of a timer has its place in the queue already. */
static hlsnap_result hlsnap__kvm_cancel_ready(hlsnap__shell *shell, hlsnap_error *err) {
    static const struct itimerspec never = {{0, 0}, {0, 0}};
    const bool by_timer = shell->signal != SIGURG;
    hlsnap_result r = by_timer ? hlsnap__kvm_timer_make(shell, HLSNAP__WALL, err) : HLSNAP_OK;
    siginfo_t info;
    if (r || shell->cancel_tried || (by_timer && shell->deadlines[HLSNAP__WALL])) return r;
    memset(&info, 0, sizeof(info));
    info.si_code = SI_QUEUE;
    shell->cancel_tried =
        (by_timer ? syscall(SYS_timer_settime, shell->timers[HLSNAP__WALL], 0, &never, NULL)
                  : syscall(SYS_rt_tgsigqueueinfo, shell->pid, shell->tid, 0 /* no signal */, &info)) == 0;
    if (shell->cancel_tried) return HLSNAP_OK;
    return hlsnap__fail(err, HLSNAP_ERR_OS, errno, "%s, for a cancel: %s (errno %d)",
                        by_timer ? "timer_settime" : "rt_tgsigqueueinfo", hlsnap__errno_text(errno), errno);
}

/* Signals are prepared only for a call that one can end: it has a time limit, or a handle to cancel it is out, or it is made
   inside such a call of another sandbox, whose signal is blocked on this thread. Once KVM has a mask, it is kept up to date. */
static hlsnap_result hlsnap__kvm_begin(hlsnap__shell *shell, const uint64_t deadlines[HLSNAP__CLOCKS], bool cancellable,
                                       hlsnap_error *err) {
    const uint64_t bit = hlsnap__kvm_signal_bit(shell);
    hlsnap_result r;
    if (shell->armed) return cancellable ? hlsnap__kvm_cancel_ready(shell, err) : HLSNAP_OK;
    if (!deadlines[HLSNAP__WALL] && !deadlines[HLSNAP__CPU] && !cancellable && !shell->mask_set) {
        if (!__atomic_load_n(&hlsnap__kvm_num_armed, __ATOMIC_RELAXED)) return HLSNAP_OK;
        r = hlsnap__kvm_sigmask(0, NULL, &shell->old_mask, err);
        if (r || !(shell->old_mask & bit)) return r;
    }
    r = hlsnap__kvm_sigmask(0 /* SIG_BLOCK */, &bit, &shell->old_mask, err);
    if (r) return r;
    shell->armed = true;
    __atomic_fetch_add(&hlsnap__kvm_num_armed, 1, __ATOMIC_RELAXED);
    shell->pid = (int32_t)getpid();
    shell->tid = (int32_t)syscall(SYS_gettid);
    memcpy(shell->deadlines, deadlines, sizeof(shell->deadlines));
    r = hlsnap__kvm_mask_set(shell, err);
    if (!r && deadlines[HLSNAP__WALL]) r = hlsnap__kvm_timer_arm(shell, HLSNAP__WALL, err);
    if (!r && deadlines[HLSNAP__CPU]) r = hlsnap__kvm_timer_arm(shell, HLSNAP__CPU, err);
    if (!r && cancellable) r = hlsnap__kvm_cancel_ready(shell, err);
    if (r) hlsnap__kvm_end(shell);
    return r;
}

static void *hlsnap__kvm_tagged(const hlsnap__shell *shell) {
    return (void *)(uintptr_t)(HLSNAP__KVM_TAG | (uint64_t)(uintptr_t)shell);
}

/* The signal ends a KVM_RUN in progress; immediate_exit one that has not begun. */
static void hlsnap__kvm_cancel(hlsnap__shell *shell) {
    static const struct itimerspec soon = {{0, 0}, {0, 1}};
    __atomic_store_n(&shell->kicked, 1, __ATOMIC_SEQ_CST);
    __atomic_store_n(&shell->run->immediate_exit, 1, __ATOMIC_SEQ_CST);
    if (!shell->armed) return; /* not blocked: the signal could end the process; the next exit ends the call */
    if (shell->signal == SIGURG) {
        siginfo_t info;
        memset(&info, 0, sizeof(info));
        info.si_signo = shell->signal;
        info.si_code = SI_QUEUE;
        info.si_pid = shell->pid;
        info.si_value.sival_ptr = hlsnap__kvm_tagged(shell);
        syscall(SYS_rt_tgsigqueueinfo, shell->pid, shell->tid, shell->signal, &info);
    } else if (shell->timer_made[HLSNAP__WALL])
        syscall(SYS_timer_settime, shell->timers[HLSNAP__WALL], 0, &soon, NULL);
}

/* ---- >>kvm-registers: what a reset writes ---- */

/* All vector state to its initial values, where the gate cannot do it: x87 and SSE given, the rest absent = initial. */
static bool hlsnap__kvm_scrub(hlsnap__shell *shell, uint64_t *area) {
    static const uint8_t head[28] = {0x7f, 0x03, 0, 0, 0, 0, 0, 0, 0, 0, 0,    0,    0, 0,
                                     0,    0,    0, 0, 0, 0, 0, 0, 0, 0, 0x80, 0x1f, 0, 0};
    memset(area, 0, HLSNAP__PAGE);
    memcpy(area, head, sizeof(head));
    area[64] = 3; /* XSTATE_BV */
    return hlsnap__ioctl(shell->vcpu, HLSNAP__KVM_SET_XSAVE, (uintptr_t)area) == 0;
}

/* General registers for an entry through the gate, at the given offset of it. IF is set, as every user program sees it: it does
   nothing, since no interrupt is ever injected, and emulators that know no guests without it lose the host's. */
static void hlsnap__kvm_regs_set(hlsnap__shell *shell, const hlsnap__entry *e, uint64_t rip, uint64_t to, bool scrub) {
    hlsnap__kvm_regs *regs = &shell->run->regs;
    memset(regs, 0, sizeof(*regs));
    regs->rip = rip;
    regs->rsp = e->rsp;
    regs->rdi = e->rdi;
    regs->rsi = e->rsi;
    regs->r11 = to;
    regs->rflags = 0x202;
    if (scrub) {
        regs->rax = regs->rdx = 0xffffffffu;
        regs->r10 = HLSNAP__SYS_AT(HLSNAP__SYS_XSAVE);
    }
    shell->run->dirty_regs |= HLSNAP__KVM_SYNC_REGS;
}

/* Writes what was about to be injected and the interrupt shadow, none, unless KVM reported just that. */
static void hlsnap__kvm_events_set(hlsnap__shell *shell) {
    hlsnap__kvm_run *run = shell->run;
    hlsnap__kvm_events none;
    memset(&none, 0, sizeof(none));
    none.flags = run->events.flags;
    if (shell->reported && memcmp(&run->events, &none, sizeof(none)) == 0) return;
    none.flags = HLSNAP__KVM_VALID_SHADOW;
    run->events = none;
    run->dirty_regs |= HLSNAP__KVM_SYNC_EVENTS;
}

/* The rest that a guest can have changed: segments and their bases, what was about to be injected, the interrupt shadow.
   KVM reports all of that at each exit; what is as it should be need not be written. */
static bool hlsnap__kvm_state_set(hlsnap__shell *shell, const hlsnap__entry *e) {
    hlsnap__kvm_run *run = shell->run;
    shell->sregs.fs.base = e->fs_base;
    shell->sregs.efer = (shell->sregs.efer & ~1ull) | (e->syscall ? 1 : 0); /* SCE */
    shell->sregs.cr4 = (shell->sregs.cr4 & ~(1ull << 16)) | (e->syscall && shell->fsgsbase ? 1ull << 16 : 0);
    if (!shell->reported || memcmp(&run->sregs, &shell->sregs, sizeof(run->sregs)) != 0) {
        run->sregs = shell->sregs;
        run->dirty_regs |= HLSNAP__KVM_SYNC_SREGS;
    }
    hlsnap__kvm_events_set(shell);
    if (shell->debugged) {
        hlsnap__kvm_debugregs d;
        memset(&d, 0, sizeof(d));
        d.dr6 = 0xffff0ff0u;
        d.dr7 = 0x400;
        if (hlsnap__ioctl(shell->vcpu, HLSNAP__KVM_SET_DEBUGREGS, (uintptr_t)&d) < 0) return false;
    }
    shell->debugged = false;
    return true;
}

/* ---- >>kvm-exits ---- */

/* kvm-pvm runs guests with the data selectors of the thread, and leaves there what they loaded: the next guest would read
   them, and the host would go on with them. Others save and load both. */
typedef struct hlsnap__kvm_selectors {
    uint16_t ds, es, fs, gs;
} hlsnap__kvm_selectors;

static hlsnap__kvm_selectors hlsnap__kvm_selectors_get(void) {
    hlsnap__kvm_selectors s;
    __asm__ volatile("movw %%ds, %0\n movw %%es, %1\n movw %%fs, %2\n movw %%gs, %3"
                     : "=r"(s.ds), "=r"(s.es), "=r"(s.fs), "=r"(s.gs));
    return s;
}

/* A null selector for FS or GS and its base in one system call: no signal handler finds itself without thread storage. */
static bool hlsnap__kvm_selector_clear(int get, int set) {
    uint64_t base = 0;
    return syscall(SYS_arch_prctl, get, &base) == 0 && syscall(SYS_arch_prctl, set, base) == 0;
}

static bool hlsnap__kvm_selectors_put(hlsnap__kvm_selectors s) {
    const hlsnap__kvm_selectors now = hlsnap__kvm_selectors_get();
    if (now.ds != s.ds) __asm__ volatile("movw %0, %%ds" : : "r"(s.ds));
    if (now.es != s.es) __asm__ volatile("movw %0, %%es" : : "r"(s.es));
    return (now.fs == s.fs || hlsnap__kvm_selector_clear(HLSNAP__ARCH_GET_FS, HLSNAP__ARCH_SET_FS)) &&
           (now.gs == s.gs || hlsnap__kvm_selector_clear(HLSNAP__ARCH_GET_GS, HLSNAP__ARCH_SET_GS));
}

static int hlsnap__kvm_enter(hlsnap__shell *shell) {
    const hlsnap__kvm_selectors own = hlsnap__kvm_selectors_get();
    const int r = hlsnap__ioctl(shell->vcpu, HLSNAP__KVM_RUN, 0), e = errno;
    if (!hlsnap__kvm_selectors_put(own)) return -1;
    errno = e;
    return r;
}

/* Whether the next KVM_RUN returns before it enters the guest; once a cancel came, each one does. */
static void hlsnap__kvm_immediate_exit(hlsnap__shell *shell, bool on) {
    __atomic_store_n(&shell->run->immediate_exit, (uint8_t)on, __ATOMIC_SEQ_CST);
    if (__atomic_load_n(&shell->kicked, __ATOMIC_SEQ_CST))
        __atomic_store_n(&shell->run->immediate_exit, (uint8_t)1, __ATOMIC_SEQ_CST);
}

/* The exception frame that the CPU pushed before the stub's OUT. */
static void hlsnap__kvm_fault(hlsnap__shell *shell, uint32_t vector, hlsnap__exit *x) {
    const uint64_t stack = HLSNAP__SYS_AT(HLSNAP__SYS_STACK), with_code = 0x60227d00u,
                   stub = HLSNAP__SYS_AT(HLSNAP__SYS_STUBS) + HLSNAP__STUB_SYSCALL;
    const hlsnap__kvm_regs *regs = &shell->run->regs;
    const uint8_t *frame;
    if (regs->rsp < stack || regs->rsp > stack + HLSNAP__PAGE - 40 || regs->rsp % 8) {
        hlsnap__kvm_dead(x, HLSNAP__EXIT_DEAD, "an exception frame out of place, rsp", regs->rsp);
        return;
    }
    frame = shell->sys + (regs->rsp - HLSNAP__SYS_GVA);
    x->kind = HLSNAP__EXIT_FAULT;
    x->vector = vector;
    x->rax = regs->rax;
    x->rcx = regs->rcx;
    if (with_code >> vector & 1) {
        x->error_code = (uint32_t)hlsnap__get64(frame);
        frame += 8;
    }
    x->rip = hlsnap__get64(frame);
    x->cr2 = shell->run->sregs.cr2;
    shell->debugged = shell->debugged || vector == 1;
    /* In SYSCALL's stub it is the guest's doing: a debug exception that MOV SS held back. */
    if ((hlsnap__get64(frame + 8) & 3) != 3)
        hlsnap__kvm_dead(x, x->rip - stub < HLSNAP__STUB_SYSCALL_SIZE ? HLSNAP__EXIT_PROTOCOL : HLSNAP__EXIT_DEAD,
                         "an exception in the supervisor area, rip", x->rip);
}

/* An exit that is no call: what it waits for is completed now, before anybody resets memory or registers. */
static void hlsnap__kvm_protocol(hlsnap__shell *shell, hlsnap__exit *x) {
    const hlsnap__kvm_run *run = shell->run;
    x->kind = HLSNAP__EXIT_PROTOCOL;
    if (run->exit_reason == HLSNAP__KVM_EXIT_IO)
        hlsnap__format(x->what, sizeof(x->what), "%s port 0x%x, %u bytes, %u times",
                       run->exit.io.direction ? "OUT to" : "IN from", run->exit.io.port, run->exit.io.size,
                       run->exit.io.count);
    else
        hlsnap__format(x->what, sizeof(x->what), "KVM exit %u", run->exit_reason);
    hlsnap__kvm_immediate_exit(shell, true);
    x->dead = hlsnap__kvm_enter(shell) == 0 || errno != EINTR;
    hlsnap__kvm_immediate_exit(shell, false);
}

static void hlsnap__kvm_exit(hlsnap__shell *shell, hlsnap__exit *x) {
    const hlsnap__kvm_run *run = shell->run;
    const uint32_t port = run->exit.io.port;
    switch (run->exit_reason) {
    case HLSNAP__KVM_EXIT_IO:
        if (run->exit.io.direction != 1 || run->exit.io.size != 1 || run->exit.io.count != 1)
            hlsnap__kvm_protocol(shell, x);
        else if (port == HLSNAP_ABI_PORT_RETURN)
            x->kind = HLSNAP__EXIT_RETURN;
        else if (port == HLSNAP_ABI_PORT_CALL)
            x->kind = HLSNAP__EXIT_CALL;
        else if (port - HLSNAP__PORT_FAULT < HLSNAP__NUM_VECTORS)
            hlsnap__kvm_fault(shell, port - HLSNAP__PORT_FAULT, x);
        else
            hlsnap__kvm_protocol(shell, x);
        break;
    case HLSNAP__KVM_EXIT_SHUTDOWN:
        hlsnap__kvm_dead(x, HLSNAP__EXIT_PROTOCOL, "a triple fault, KVM exit", run->exit_reason);
        break;
    case HLSNAP__KVM_EXIT_INTERNAL_ERROR:
        hlsnap__kvm_dead(x, HLSNAP__EXIT_PROTOCOL, "an instruction KVM cannot run, suberror",
                         run->exit.internal.suberror);
        break;
    case HLSNAP__KVM_EXIT_FAIL_ENTRY:
        hlsnap__kvm_dead(x, HLSNAP__EXIT_DEAD, "VM entry refused, reason",
                         run->exit.fail_entry.hardware_entry_failure_reason);
        break;
    default: hlsnap__kvm_protocol(shell, x); break;
    }
}

/* An exit with RFLAGS.TF, or in the shadow of MOV SS, leaves a debug exception pending in the CPU that no ioctl takes away
   (VMX) and that would hit the next tenant's first instruction: no call, and the end of this vCPU. Looked at before an exit
   is completed, which hides it. */
static bool hlsnap__kvm_odd(const hlsnap__shell *shell) {
    return (shell->run->regs.rflags >> 8 & 1) != 0 || shell->run->events.shadow;
}

/* Runs to the next exit with the registers as they are set. */
static void hlsnap__kvm_run_on(hlsnap__shell *shell, hlsnap__exit *x) {
    const int failed = hlsnap__kvm_enter(shell) == 0 ? 0 : errno;
    const uint64_t flags = shell->run->regs.rflags;
    const bool odd = hlsnap__kvm_odd(shell);
    shell->reported = !failed || failed == EINTR;
    if (!shell->reported) {
        hlsnap__kvm_lost(x, failed, "KVM_RUN");
        return;
    }
    if (!failed)
        hlsnap__kvm_exit(shell, x);
    else {
        x->kind = HLSNAP__EXIT_KICKED;
        if (!shell->run->sregs.cs.dpl) shell->debugged = true; /* in a stub, perhaps that of a debug exception */
        x->outer = shell->outer;
        shell->outer = false;
        if (!hlsnap__kvm_drain(shell, &x->outer)) { /* each run would be interrupted at once, for ever */
            hlsnap__kvm_lost(x, errno, "rt_sigtimedwait");
            return;
        }
        hlsnap__kvm_immediate_exit(shell, false);
    }
    if (odd && (x->kind == HLSNAP__EXIT_RETURN || x->kind == HLSNAP__EXIT_CALL))
        hlsnap__kvm_dead(x, HLSNAP__EXIT_PROTOCOL, "OUT under TF or an interrupt shadow, flags", flags);
    x->dead = x->dead || odd;
}

/* ---- >>kvm-gate: does its XRSTOR clear everything here? Tried once per process, never learnt from a guest ---- */

/* Every component in use, filled with a pattern; the layout is the CPU's (CPUID 0xd). */
static void hlsnap__kvm_dirt(const hlsnap__kvm_cpuid *cpuid, uint64_t xcr0, uint8_t *area) {
    static const uint8_t head[32] = {0x7f, 0x02, 0x41, 0x38, 0xff, 0,    0x23, 0x01, 0x11, 0x22, 0x33,
                                     0x44, 0x55, 0,    0,    0,    0x66, 0x77, 0x11, 0x22, 0x33, 0,
                                     0,    0,    0xbf, 0x1f, 0,    0,    0xff, 0xff, 0,    0};
    uint64_t used = xcr0 | 3;
    uint32_t i;
    memset(area, 0, HLSNAP__PAGE);
    memset(area + 32, 0xa5, 384); /* ST0 .. ST7, XMM0 .. XMM15 */
    memcpy(area, head, sizeof(head));
    for (i = 2; i < 8; i++) {
        const hlsnap__kvm_cpuid_entry *e = hlsnap__kvm_leaf(cpuid, 0xd, i);
        if (!(used >> i & 1)) continue;
        if (e->eax && e->ebx >= 576 && e->ebx <= HLSNAP__PAGE && e->eax <= HLSNAP__PAGE - e->ebx)
            memset(area + e->ebx, 0xa5, e->eax);
        else
            used &= ~(1ull << i);
    }
    memcpy(area + 512, &used, sizeof(used)); /* XSTATE_BV */
}

/* What KVM_GET_XSAVE gives when all components have their initial values, or are marked to. */
static bool hlsnap__kvm_clean(const uint8_t *area) {
    uint64_t used;
    uint32_t mxcsr, i;
    memcpy(&used, area + 512, sizeof(used));
    memcpy(&mxcsr, area + 24, sizeof(mxcsr));
    if (used & 1 && (area[0] != 0x7f || area[1] != 0x03)) return false;
    for (i = 2; used & 1 && i < 24; i++)
        if (area[i]) return false;
    if (mxcsr != 0x1f80) return false;
    for (i = 32; i < 416; i++)
        if (area[i] && used >> (i >= 160) & 1) return false;
    return !(used & ~3ull) || hlsnap__all_zero(area + 576, HLSNAP__PAGE - 576);
}

/* Runs code of ours, put into the gate page for as long as it takes; the guest does not run. false: nothing is known, because it
   was interrupted, or the vCPU is dead, as *x says. */
static bool hlsnap__kvm_own_code(hlsnap__shell *shell, const uint8_t *code, size_t size, hlsnap__exit *x) {
    uint8_t *at = (uint8_t *)hlsnap__unconst(shell->sys) + HLSNAP__SYS_GATE * HLSNAP__PAGE + HLSNAP__KVM_OWN_CODE;
    memcpy(at, code, size);
    hlsnap__kvm_run_on(shell, x);
    memset(at, 0xf4, size);
    shell->used = true; /* there is an exit to complete */
    return !x->dead && x->kind != HLSNAP__EXIT_DEAD && x->kind != HLSNAP__EXIT_KICKED;
}

/* Whether PKRU is the guest's to write, though no CR4 and no CPUID of its says so: software KVM. Then what a tenant leaves there
   decides what the next one may read, and the gate clears it. Where KVM switches keys off, WRPKRU is no instruction. false as
   hlsnap__kvm_own_code. */
static bool hlsnap__kvm_keys_ready(hlsnap__shell *shell, const hlsnap__entry *e, hlsnap__exit *x) {
    static const uint8_t code[] = {0x0f, 0x01, 0xef, 0xe6, HLSNAP_ABI_PORT_RETURN}; /* wrpkru; out %al, $port */
    const uint64_t at = HLSNAP__SYS_AT(HLSNAP__SYS_GATE) + HLSNAP__KVM_OWN_CODE;
    int32_t keys = __atomic_load_n(&hlsnap__kvm_facts_keys, __ATOMIC_ACQUIRE);
    if (shell->keys && keys == HLSNAP__KVM_KEYS_UNTRIED) {
        memset(x, 0, sizeof(*x));
        hlsnap__kvm_regs_set(shell, e, at, at, false);
        if (!hlsnap__kvm_state_set(shell, e)) {
            hlsnap__kvm_lost(x, errno, "KVM_SET_DEBUGREGS");
            return false;
        }
        if (!hlsnap__kvm_own_code(shell, code, sizeof(code), x)) return false;
        keys = x->kind == HLSNAP__EXIT_RETURN ? HLSNAP__KVM_KEYS_RUN : HLSNAP__KVM_KEYS_FAULT;
        __atomic_store_n(&hlsnap__kvm_facts_keys, keys, __ATOMIC_RELEASE);
        memset(x, 0, sizeof(*x));
    }
    shell->keys = shell->keys && keys == HLSNAP__KVM_KEYS_RUN;
    return true;
}

/* Where the gate is entered, by a fresh guest or for the next call. */
static uint64_t hlsnap__kvm_gate_at(const hlsnap__shell *shell, bool fresh, bool scrub) {
    return HLSNAP__SYS_AT(HLSNAP__SYS_GATE) + (fresh && shell->keys ? HLSNAP__GATE_KEYS
                                               : scrub              ? HLSNAP__GATE_SCRUB
                                                                    : HLSNAP__GATE_ENTER);
}

/* Fills all vector state, has the gate clear it, and looks. false as hlsnap__kvm_own_code; what interrupted it has been consumed,
   so that the guest's own run ends at once, too. */
static bool hlsnap__kvm_gate_try(hlsnap__shell *shell, const hlsnap__entry *e, uint8_t *area, int32_t *gate,
                                 hlsnap__exit *x) {
    static const uint8_t out[] = {0xe6, HLSNAP_ABI_PORT_RETURN, 0xf4, 0xf4}; /* out %al, $port */
    const uint64_t base = HLSNAP__SYS_AT(HLSNAP__SYS_GATE);
    memset(x, 0, sizeof(*x));
    hlsnap__kvm_dirt(&hlsnap__kvm_facts_published.cpuid, shell->xcr0, area);
    *gate = HLSNAP__KVM_GATE_FAILS;
    if (hlsnap__ioctl(shell->vcpu, HLSNAP__KVM_SET_XSAVE, (uintptr_t)area) < 0) return true;
    hlsnap__kvm_regs_set(shell, e, hlsnap__kvm_gate_at(shell, true, true), base + HLSNAP__KVM_OWN_CODE, true);
    if (!hlsnap__kvm_state_set(shell, e)) return true;
    if (!hlsnap__kvm_own_code(shell, out, sizeof(out), x)) {
        if (x->kind == HLSNAP__EXIT_KICKED) {
            shell->outer = x->outer;
            hlsnap__kvm_immediate_exit(shell, true);
        }
        return false;
    }
    if (x->kind == HLSNAP__EXIT_RETURN && shell->run->regs.rip - base < HLSNAP__PAGE &&
        hlsnap__ioctl(shell->vcpu, HLSNAP__KVM_GET_XSAVE, (uintptr_t)area) == 0 && hlsnap__kvm_clean(area))
        *gate = HLSNAP__KVM_GATE_SCRUBS;
    return true;
}

/* Whether the gate clears vector state at the next entry; where not, it is done here. */
static bool hlsnap__kvm_gate_ready(hlsnap__shell *shell, const hlsnap__entry *e, bool *scrub, hlsnap__exit *x) {
    int32_t gate = __atomic_load_n(&hlsnap__kvm_facts_gate[shell->cpu], __ATOMIC_ACQUIRE);
    uint64_t *area;
    bool alive;
    *scrub = shell->gate_scrubs && gate == HLSNAP__KVM_GATE_SCRUBS;
    if (*scrub) return true;
    area = (uint64_t *)hlsnap__alloc_raw(HLSNAP__PAGE, NULL);
    if (area && shell->gate_scrubs && gate == HLSNAP__KVM_GATE_UNTRIED &&
        __atomic_load_n(&hlsnap__kvm_facts_state, __ATOMIC_ACQUIRE) == 2 &&
        hlsnap__kvm_gate_try(shell, e, (uint8_t *)area, &gate, x))
        __atomic_store_n(&hlsnap__kvm_facts_gate[shell->cpu], gate, __ATOMIC_RELEASE);
    alive = !x->dead && x->kind != HLSNAP__EXIT_DEAD;
    if (alive) memset(x, 0, sizeof(*x));
    if (!area)
        hlsnap__kvm_lost(x, ENOMEM, "clearing vector state");
    else if (alive && !hlsnap__kvm_scrub(shell, area))
        hlsnap__kvm_lost(x, errno, "KVM_SET_XSAVE");
    hlsnap__free(area);
    if (!alive) x->kind = HLSNAP__EXIT_DEAD;
    return x->kind != HLSNAP__EXIT_DEAD;
}

/* Code of ours in a machine without a guest, outside calls. false as hlsnap__kvm_own_code. */
static bool hlsnap__kvm_trial(hlsnap__shell *shell, const uint8_t *code, size_t size, hlsnap__exit *x) {
    const uint64_t at = HLSNAP__SYS_AT(HLSNAP__SYS_GATE) + HLSNAP__KVM_OWN_CODE;
    hlsnap__entry nothing;
    memset(x, 0, sizeof(*x));
    memset(&nothing, 0, sizeof(nothing));
    hlsnap__kvm_regs_set(shell, &nothing, at, at, false);
    if (hlsnap__kvm_state_set(shell, &nothing)) return hlsnap__kvm_own_code(shell, code, size, x);
    hlsnap__kvm_lost(x, errno, "KVM_SET_DEBUGREGS");
    return false;
}

/* What was found out of this machine, by whoever came first. Of a shell that has its memory, outside calls. */
static hlsnap_result hlsnap__kvm_tried(hlsnap__shell *shell, int32_t *fact,
                                       bool (*attempt)(hlsnap__shell *, int32_t *, hlsnap__exit *), const char *what,
                                       int32_t *found, hlsnap_error *err) {
    hlsnap__exit x;
    int tries = 0;
    *found = __atomic_load_n(fact, __ATOMIC_ACQUIRE);
    while (!*found && !attempt(shell, found, &x)) {
        if (x.kind != HLSNAP__EXIT_KICKED || x.dead)
            return hlsnap__fail(err, x.code ? x.code : HLSNAP_ERR_HYPERVISOR, x.os_errno, "trying %s: %s", what,
                                x.what);
        if (++tries == 1000) return hlsnap__fail(err, HLSNAP_ERR_OS, EINTR, "trying %s: signals all the time", what);
    }
    __atomic_store_n(fact, *found, __ATOMIC_RELEASE);
    return HLSNAP_OK;
}

/* ---- >>kvm-touch: KVM learns of pages before the guest's first call: each is read, and written where the guest may, by code of
   ours at CPL 3; its bytes stay ---- */

/* As many spans as there is room for; false as hlsnap__kvm_own_code. */
static bool hlsnap__kvm_touch_some(hlsnap__shell *shell, const hlsnap__entry *entry, const hlsnap__span *spans,
                                   uint32_t num, hlsnap__exit *x) {
    // clang-format off
    static const uint8_t code[] = {
        0x48, 0x8b, 0x07,                          /* 1: mov (%rdi), %rax */
        0x48, 0x85, 0xc0, 0x74, 0x1b,              /*    test %rax, %rax; jz 4f */
        0x0f, 0xb6, 0x10,                          /* 2: movzbl (%rax), %edx */
        0xa8, 0x01, 0x74, 0x02, 0x88, 0x10,        /*    test $1, %al; jz 3f; mov %dl, (%rax) */
        0x48, 0x05, 0x00, 0x10, 0x00, 0x00,        /* 3: add $4096, %rax */
        0x48, 0x3b, 0x47, 0x08, 0x72, 0xeb,        /*    cmp 8(%rdi), %rax; jb 2b */
        0x48, 0x83, 0xc7, 0x10, 0xeb, 0xdd,        /*    add $16, %rdi; jmp 1b */
        0xe6, HLSNAP_ABI_PORT_RETURN, 0xf4, 0xf4}; /* 4: out %al, $port */
    // clang-format on
    const uint64_t gate = HLSNAP__SYS_AT(HLSNAP__SYS_GATE), at = gate + HLSNAP__KVM_OWN_CODE;
    uint8_t *list =
        (uint8_t *)hlsnap__unconst(shell->sys) + HLSNAP__SYS_GATE * HLSNAP__PAGE + HLSNAP__KVM_OWN_SPANS;
    hlsnap__entry own = *entry; /* whose segments need not be set again */
    uint32_t i;
    bool ran;
    if (!hlsnap__kvm_keys_ready(shell, entry, x)) return false;
    own.rdi = gate + HLSNAP__KVM_OWN_SPANS;
    hlsnap__kvm_regs_set(shell, &own, hlsnap__kvm_gate_at(shell, true, false), at, false); /* a tenant's PKRU may forbid to read */
    if (!hlsnap__kvm_state_set(shell, &own)) {
        hlsnap__kvm_lost(x, errno, "KVM_SET_DEBUGREGS");
        return false;
    }
    memset(list, 0, (num + 1) * 16);
    for (i = 0; i < num; i++) {
        hlsnap__put64(list + i * 16, spans[i].from | spans[i].write);
        hlsnap__put64(list + i * 16 + 8, spans[i].to);
    }
    ran = hlsnap__kvm_own_code(shell, code, sizeof(code), x);
    memset(list, 0xf4, (num + 1) * 16);
    return ran && x->kind == HLSNAP__EXIT_RETURN;
}

static void hlsnap__kvm_touch(hlsnap__shell *shell, const hlsnap__entry *entry, const hlsnap__span *spans, uint32_t num,
                              hlsnap__exit *x) {
    uint32_t n;
    for (; num; num -= n, spans += n) {
        n = num < HLSNAP__KVM_MAX_SPANS ? num : HLSNAP__KVM_MAX_SPANS;
        memset(x, 0, sizeof(*x));
        if (!hlsnap__kvm_touch_some(shell, entry, spans, n, x)) return;
    }
}

/* ---- >>kvm-syscall: where this KVM takes SYSCALL. Tried once per process, by code of ours, never learnt from a guest: on
   hardware, LSTAR in a page of CPL 3 would run a guest's code at CPL 0 ---- */

/* SYSCALL from the gate page. Hardware runs the stub, which comes back to the slot's address; software KVM goes to LSTAR without
   a change of privilege, and faults there. false as hlsnap__kvm_own_code. */
static bool hlsnap__kvm_syscall_try(hlsnap__shell *shell, const hlsnap__entry *e, int32_t *kind, hlsnap__exit *x) {
    static const uint8_t code[] = {0x0f, 0x05, 0xf4, 0xe6, HLSNAP_ABI_PORT_CALL,
                                   0xf4}; /* syscall; hlt; out %al, $port */
    const uint64_t at = HLSNAP__SYS_AT(HLSNAP__SYS_GATE) + HLSNAP__KVM_OWN_CODE,
                   stub = HLSNAP__SYS_AT(HLSNAP__SYS_STUBS) + HLSNAP__STUB_SYSCALL;
    uint8_t *slot = (uint8_t *)hlsnap__unconst(shell->sys) + HLSNAP__SYS_GATE * HLSNAP__PAGE + HLSNAP__GATE_SLOT;
    const uint64_t guests = hlsnap__get64(slot);
    bool known;
    memset(x, 0, sizeof(*x));
    hlsnap__kvm_regs_set(shell, e, at, at, false);
    if (!hlsnap__kvm_state_set(shell, e)) return true;
    hlsnap__put64(slot, at + 3);
    known = hlsnap__kvm_own_code(shell, code, sizeof(code), x);
    hlsnap__put64(slot, guests);
    if (known && x->kind == HLSNAP__EXIT_CALL) *kind = HLSNAP__KVM_SYSCALL_HARD;
    if (known && x->kind == HLSNAP__EXIT_FAULT && x->vector == 14 && x->rip == stub) *kind = HLSNAP__KVM_SYSCALL_SOFT;
    return known;
}

/* Before the first entry of a guest that makes system calls. */
static bool hlsnap__kvm_syscall_ready(hlsnap__shell *shell, const hlsnap__entry *e, hlsnap__exit *x) {
    const uint64_t stub = HLSNAP__SYS_AT(HLSNAP__SYS_STUBS) + HLSNAP__STUB_SYSCALL,
                   gate = HLSNAP__SYS_AT(HLSNAP__SYS_GATE) + HLSNAP__GATE_SYSCALL;
    int32_t kind = __atomic_load_n(&hlsnap__kvm_facts_syscall, __ATOMIC_ACQUIRE);
    if (kind == HLSNAP__KVM_SYSCALL_UNTRIED) {
        if (!hlsnap__kvm_lstar_set(shell, stub)) {
            hlsnap__kvm_lost(x, errno, "KVM_SET_MSRS for SYSCALL");
            return false;
        }
        if (!hlsnap__kvm_syscall_try(shell, e, &kind, x)) return false;
        if (kind == HLSNAP__KVM_SYSCALL_UNTRIED) {
            hlsnap__kvm_dead(x, HLSNAP__EXIT_DEAD, "SYSCALL leads nowhere known, exit", (uint64_t)x->kind);
            return false;
        }
        __atomic_store_n(&hlsnap__kvm_facts_syscall, kind, __ATOMIC_RELEASE);
        memset(x, 0, sizeof(*x));
    }
    if (hlsnap__kvm_lstar_set(shell, kind == HLSNAP__KVM_SYSCALL_SOFT ? gate : stub)) return true;
    hlsnap__kvm_lost(x, errno, "KVM_SET_MSRS of LSTAR");
    return false;
}

/* WRFSBASE from the gate page, and whether KVM sees it. false as hlsnap__kvm_own_code. */
static bool hlsnap__kvm_fsgsbase_try(hlsnap__shell *shell, int32_t *kind, hlsnap__exit *x) {
    // clang-format off
    static const uint8_t code[] = {0xb8, 0x00, 0x50, 0x00, 0x00,        /* mov $0x5000, %eax */
                                   0xf3, 0x48, 0x0f, 0xae, 0xd0,        /* wrfsbase %rax */
                                   0xe6, HLSNAP_ABI_PORT_RETURN};       /* out %al, $port */
    // clang-format on
    if (!hlsnap__kvm_trial(shell, code, sizeof(code), x)) return false;
    *kind = x->kind == HLSNAP__EXIT_RETURN && shell->run->sregs.fs.base == 0x5000 ? HLSNAP__KVM_FSGSBASE_RUNS
                                                                                  : HLSNAP__KVM_FSGSBASE_FAILS;
    return true;
}

/* A program sets its thread pointer itself. Software KVM runs that natively, though CPUID shows nothing of it. */
static hlsnap_result hlsnap__kvm_syscall_check(hlsnap__shell *shell, hlsnap_error *err) {
    int32_t kind = HLSNAP__KVM_FSGSBASE_RUNS;
    hlsnap_result r = HLSNAP_OK;
    if (!shell->fsgsbase)
        r = hlsnap__kvm_tried(shell, &hlsnap__kvm_facts_fsgsbase, hlsnap__kvm_fsgsbase_try, "WRFSBASE", &kind, err);
    if (r || kind == HLSNAP__KVM_FSGSBASE_RUNS) return r;
    return hlsnap__fail(err, HLSNAP_ERR_UNSUPPORTED, 0,
                        "this CPU or its KVM has no FSGSBASE, which guests with system calls need");
}

/* ---- >>kvm-cpu: does this KVM show guests the CPU that it was told to show? Tried once per process and level, by code of ours,
   never learnt from a guest: software KVM runs CPL 3 as it is ---- */

/* CPUID and XGETBV from the gate page. false as hlsnap__kvm_own_code. */
static bool hlsnap__kvm_cpu_try(hlsnap__shell *shell, int32_t *level, hlsnap__exit *x) {
    // clang-format off
    static const uint8_t code[] = {
        0xb8, 7, 0, 0, 0, 0x31, 0xc9, 0x0f, 0xa2,                   /* mov $7, %eax; xor %ecx, %ecx; cpuid */
        0x41, 0x89, 0xd8, 0x41, 0x89, 0xc9, 0x41, 0x89, 0xd2,       /* ebx, ecx, edx to r8d, r9d, r10d */
        0xb8, 1, 0, 0, 0, 0x0f, 0xa2,                               /* mov $1, %eax; cpuid */
        0x41, 0x89, 0xcc, 0x41, 0x89, 0xd5,                         /* ecx, edx to r12d, r13d */
        0x31, 0xc9, 0x0f, 0x01, 0xd0, 0xe6, HLSNAP_ABI_PORT_RETURN}; /* xor %ecx, %ecx; xgetbv; out %al, $port */
    // clang-format on
    const uint64_t at = HLSNAP__SYS_AT(HLSNAP__SYS_GATE) + HLSNAP__KVM_OWN_CODE;
    const hlsnap__kvm_regs *regs = &shell->run->regs;
    bool alike;
    HLSNAP__STATIC_ASSERT(own_code, sizeof(code) <= HLSNAP__GATE_SYSRET - HLSNAP__KVM_OWN_CODE);
    if (!hlsnap__kvm_trial(shell, code, sizeof(code), x)) return false;
    /* but for APIC, OSXSAVE and OSPKE, which depend on the vCPU's state */
    alike = (((uint32_t)regs->r12 ^ shell->shown[0]) & ~(1u << 27)) == 0 &&
            (((uint32_t)regs->r13 ^ shell->shown[1]) & ~(1u << 9)) == 0 && (uint32_t)regs->r8 == shell->shown[2] &&
            (((uint32_t)regs->r9 ^ shell->shown[3]) & ~(1u << 4)) == 0 && (uint32_t)regs->r10 == shell->shown[4];
    if (shell->xcr0)
        alike = alike && x->kind == HLSNAP__EXIT_RETURN && regs->rax == shell->xcr0 && regs->rdx == 0;
    else
        alike = alike && x->kind == HLSNAP__EXIT_FAULT && x->vector == 6 && x->rip == at + sizeof(code) - 5;
    *level = alike ? HLSNAP__KVM_LEVEL_SHOWN : HLSNAP__KVM_LEVEL_FAILS;
    return true;
}

/* Of a shell that has its memory, outside calls. */
static hlsnap_result hlsnap__kvm_cpu_check(hlsnap__shell *shell, hlsnap_error *err) {
    const char *name = hlsnap__cpu_level_names[shell->cpu];
    char names[300];
    int32_t level;
    hlsnap_result r;
    if (!shell->cpu) return HLSNAP_OK;
    r = hlsnap__kvm_tried(shell, &hlsnap__kvm_facts_levels[shell->cpu], hlsnap__kvm_cpu_try, "a CPU level", &level,
                          err);
    if (r) return r;
    if (level != HLSNAP__KVM_LEVEL_SHOWN)
        return hlsnap__fail(
            err, HLSNAP_ERR_UNSUPPORTED, 0,
            "CPU level %s: this KVM runs guests with the machine's own CPUID or XCR0, whatever it is told, so no level "
            "can be kept; leave guest_desc.cpu at HLSNAP_CPU_HOST",
            name);
    if (!shell->lacks) return HLSNAP_OK;
    hlsnap__cpu_names(shell->lacks, names, sizeof(names));
    return hlsnap__fail(err, HLSNAP_ERR_CPU, 0, "CPU level %s: this machine's KVM offers guests no %s", name, names);
}

static uint64_t hlsnap__kvm_tsc_scale(hlsnap__shell *shell) {
    if (!shell->tsc_scale) {
        const int khz = hlsnap__ioctl(shell->vcpu, HLSNAP__KVM_GET_TSC_KHZ, 0);
        if (khz > 0) shell->tsc_scale = (1000000ull << 32) / (uint32_t)khz;
    }
    return shell->tsc_scale;
}

/* ---- >>kvm-run ---- */

static void hlsnap__kvm_run_guest(hlsnap__shell *shell, const hlsnap__entry *entry, hlsnap__exit *x) {
    bool scrub = false;
    if (!entry && shell->again) entry = &shell->entry;
    shell->again = false;
    if (entry && entry->fresh &&
        (!hlsnap__kvm_keys_ready(shell, entry, x) ||
         (entry->syscall && !hlsnap__kvm_syscall_ready(shell, entry, x)))) {
        shell->again = x->kind == HLSNAP__EXIT_KICKED;
        shell->entry = *entry;
        return;
    }
    if (entry && entry->fresh && shell->used && !hlsnap__kvm_gate_ready(shell, entry, &scrub, x)) return;
    if (entry && !shell->used) /* no vector state to clear and no exit to complete: no gate */
        hlsnap__kvm_regs_set(shell, entry, entry->rip, entry->rip, false);
    else if (entry)
        hlsnap__kvm_regs_set(shell, entry, hlsnap__kvm_gate_at(shell, entry->fresh, scrub), entry->rip, scrub);
    if (entry && entry->fresh && !hlsnap__kvm_state_set(shell, entry)) {
        hlsnap__kvm_lost(x, errno, "KVM_SET_DEBUGREGS");
        return;
    }
    shell->used = true;
    hlsnap__kvm_run_on(shell, x);
}

/* ---- >>kvm-public ---- */

static const hlsnap_hypervisor hlsnap__kvm_hypervisor = {"kvm",
                                                         0,
                                                         hlsnap__kvm_create,
                                                         hlsnap__kvm_destroy,
                                                         hlsnap__kvm_map,
                                                         hlsnap__kvm_begin,
                                                         hlsnap__kvm_end,
                                                         hlsnap__kvm_run_guest,
                                                         hlsnap__kvm_cancel,
                                                         hlsnap__kvm_tsc_scale,
                                                         hlsnap__kvm_syscall_check,
                                                         hlsnap__kvm_cpu_check,
                                                         hlsnap__kvm_touch};

HLSNAP_API const hlsnap_hypervisor *hlsnap_kvm(void) { return &hlsnap__kvm_hypervisor; }

HLSNAP_API hlsnap_result hlsnap_kvm_probe(hlsnap_error *err) {
    hlsnap__shell *shell;
    const hlsnap_result r = hlsnap__kvm_create(&hlsnap__kvm_hypervisor, SIGURG, HLSNAP_CPU_HOST, &shell, err);
    if (!r) hlsnap__kvm_destroy(shell, false);
    return r;
}

#ifdef __cplusplus
} /* extern "C" */
#endif
#endif /* HLSNAP_KVM_IMPLEMENTATION_ONCE */
#elif defined(HLSNAP_IMPLEMENTATION) && !defined(HLSNAP_GUEST)
#ifndef HLSNAP_KVM_IMPLEMENTATION_ONCE
#define HLSNAP_KVM_IMPLEMENTATION_ONCE

#ifdef __cplusplus
extern "C" {
#endif

/* ---- >>kvm-elsewhere: no shell is ever made, so nothing but shell_create is called ---- */

static hlsnap_result hlsnap__kvm_create(const hlsnap_hypervisor *hv, int cancel_signal, uint32_t cpu,
                                        hlsnap__shell **out, hlsnap_error *err) {
    (void)hv;
    (void)cancel_signal;
    (void)cpu;
    *out = NULL;
    return hlsnap__fail(err, HLSNAP_ERR_HYPERVISOR, 0,
                        "hlsnap_kvm: x86-64 only, and this program is of another architecture");
}

static const hlsnap_hypervisor hlsnap__kvm_hypervisor = {
    "kvm", 0, hlsnap__kvm_create, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL};

HLSNAP_API const hlsnap_hypervisor *hlsnap_kvm(void) { return &hlsnap__kvm_hypervisor; }

HLSNAP_API hlsnap_result hlsnap_kvm_probe(hlsnap_error *err) {
    hlsnap__shell *shell;
    return hlsnap__kvm_create(&hlsnap__kvm_hypervisor, 0, 0, &shell, err);
}

#ifdef __cplusplus
} /* extern "C" */
#endif
#endif /* HLSNAP_KVM_IMPLEMENTATION_ONCE */
#endif /* HLSNAP_IMPLEMENTATION */

/* MIT License. Copyright (c) 2026 the hlsnap authors

   Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated documentation
   files (the "Software"), to deal in the Software without restriction, including without limitation the rights to use, copy,
   modify, merge, publish, distribute, sublicense, and/or sell copies of the Software, and to permit persons to whom the
   Software is furnished to do so, subject to the following conditions:

   The above copyright notice and this permission notice shall be included in all copies or substantial portions of the
   Software.

   THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE
   WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR
   COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE,
   ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE. */

/* hlsnap_kvm.h - v0.1.0 - the hypervisor of hlsnap: Linux KVM on x86-64. License: MIT, end of file.

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
    No handler is ever installed. During a call the sandbox's cancel signal (SIGRTMIN + 3 unless its desc says otherwise) is
    blocked on the calling thread and let through only while the guest runs, where it ends the run; afterwards it is
    consumed and the thread's mask is as before. Other signals interrupt the guest for as long as their handlers take.

THREADS
    Any. Facts about the machine (CPUID, capabilities) are read once per process.

SEE docs/security.md for what the VM consists of. Source of the interface: the kernel's Documentation/virt/kvm/api.rst. */

#ifndef HLSNAP_KVM_H
#define HLSNAP_KVM_H
#include "hlsnap.h"
#if HLSNAP_VERSION != 1000
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
   returns   HLSNAP_OK; HLSNAP_ERR_HYPERVISOR (no module, no permission, a KVM without what is needed)
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
#define HLSNAP__KVM_RUN 0xae80ul
#define HLSNAP__KVM_GET_REGS 0x8090ae81ul
#define HLSNAP__KVM_SET_REGS 0x4090ae82ul
#define HLSNAP__KVM_GET_SREGS 0x8138ae83ul
#define HLSNAP__KVM_SET_SREGS 0x4138ae84ul
#define HLSNAP__KVM_SET_MSRS 0x4008ae89ul
#define HLSNAP__KVM_SET_SIGNAL_MASK 0x4004ae8bul
#define HLSNAP__KVM_SET_CPUID2 0x4008ae90ul
#define HLSNAP__KVM_SET_VCPU_EVENTS 0x4040aea0ul
#define HLSNAP__KVM_SET_XSAVE 0x5000aea5ul
#define HLSNAP__KVM_SET_XCRS 0x4188aea7ul
#define HLSNAP__KVM_CAP_SYNC_REGS 74u
#define HLSNAP__KVM_CAP_IMMEDIATE_EXIT 136u
#define HLSNAP__KVM_EXIT_IO 2u
#define HLSNAP__KVM_EXIT_SHUTDOWN 8u
#define HLSNAP__KVM_EXIT_FAIL_ENTRY 9u
#define HLSNAP__KVM_EXIT_INTERNAL_ERROR 17u
#define HLSNAP__KVM_SYNC_REGS 1u
#define HLSNAP__KVM_SYNC_SREGS 2u
#define HLSNAP__KVM_SYNC_EVENTS 4u

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

typedef struct hlsnap__kvm_events {
    uint8_t bytes[64];
} hlsnap__kvm_events; /* all zero is what a reset writes */

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
    uint32_t num, padding, index, reserved;
    uint64_t value;
} hlsnap__kvm_msr; /* kvm_msrs of one */
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
                                    sizeof(hlsnap__kvm_sigevent) == 64);

/* ---- >>kvm-facts: what this machine's KVM can do, read once per process ---- */

typedef struct hlsnap__kvm_facts {
    uint32_t run_size; /* bytes of the shared page */
    uint32_t sync;     /* HLSNAP__KVM_SYNC_x that KVM_RUN takes along */
    uint64_t xcr0, cr4;
    bool gate_scrubs; /* the gate's XRSTOR clears all vector state, x87 pointers included */
    uint8_t tss_type;
    hlsnap__kvm_cpuid cpuid;
} hlsnap__kvm_facts;

#define HLSNAP__KVM_NO_SYNC 1u /* quirks: take the slower way, as an older kernel or another CPU would make us */
#define HLSNAP__KVM_NO_GATE_SCRUB 2u

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

/* Does a compacted XRSTOR at CPL 3 initialise all vector state? Asked of the CPU, not of KVM: software KVM offers guests no
   XSAVE, and yet they have it, with all its state. Where the guest has not, the gate faults once and is not used again.
   AMD CPUs before XSAVEERPTR leave the x87 pointers alone. */
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

static hlsnap_result hlsnap__kvm_facts_read(int kvm, hlsnap__kvm_facts *f, hlsnap_error *err) {
    const hlsnap__kvm_cpuid_entry *leaf7;
    const int size = hlsnap__ioctl(kvm, HLSNAP__KVM_GET_VCPU_MMAP_SIZE, 0);
    const int sync = hlsnap__ioctl(kvm, HLSNAP__KVM_CHECK_EXTENSION, HLSNAP__KVM_CAP_SYNC_REGS);
    memset(f, 0, sizeof(*f));
    f->cpuid.num = HLSNAP__KVM_MAX_CPUID;
    if (hlsnap__ioctl(kvm, HLSNAP__KVM_GET_API_VERSION, 0) != 12 || size < (int)sizeof(hlsnap__kvm_run) ||
        hlsnap__ioctl(kvm, HLSNAP__KVM_CHECK_EXTENSION, HLSNAP__KVM_CAP_IMMEDIATE_EXIT) <= 0 ||
        hlsnap__ioctl(kvm, HLSNAP__KVM_GET_SUPPORTED_CPUID, (uintptr_t)&f->cpuid) < 0)
        return hlsnap__fail(err, HLSNAP_ERR_HYPERVISOR, errno,
                            "this KVM lacks what hlsnap needs (errno %d, run page of %d bytes)", errno, size);
    f->run_size = (uint32_t)size;
    f->sync = sync > 0 ? (uint32_t)sync & 7u : 0;
    hlsnap__kvm_cpuid_trim(&f->cpuid);
    f->cr4 = 1u << 5 | 1u << 9 | 1u << 10; /* PAE, OSFXSR, OSXMMEXCPT */
    if (hlsnap__kvm_leaf(&f->cpuid, 1, 0)->ecx >> 26 & 1) {
        f->cr4 |= 1u << 18; /* OSXSAVE */
        f->xcr0 = hlsnap__kvm_leaf(&f->cpuid, 0xd, 0)->eax & 0xe7u;
    }
    leaf7 = hlsnap__kvm_leaf(&f->cpuid, 7, 0); /* UMIP, SMEP, SMAP where there are */
    f->cr4 |= (leaf7->ecx >> 2 & 1u) << 11 | (leaf7->ebx >> 7 & 1u) << 20 | (leaf7->ebx >> 20 & 1u) << 21;
    f->gate_scrubs = hlsnap__kvm_xrstor_scrubs();
    f->tss_type = hlsnap__kvm_is_tcg() ? 9 : 11;
    return HLSNAP_OK;
}

/* Published once, then read-only: the one piece of process-wide state besides hlsnap__cpu_features'. */
static hlsnap__kvm_facts hlsnap__kvm_facts_published;
static int32_t hlsnap__kvm_facts_state; /* 0 nobody, 1 being written, 2 ready */

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

/* ---- >>kvm-shell: one VM with one vCPU ---- */

struct hlsnap__shell {
    int vm, vcpu;
    hlsnap__kvm_run *run;
    size_t run_size;
    uint32_t sync;
    bool gate_scrubs;
    bool gate_works;         /* it did, once */
    const uint8_t *sys;      /* the supervisor area, for the exception frames */
    hlsnap__kvm_sregs sregs; /* what every reset writes; fs.base apart */
    int signal;
    uint64_t mask; /* signals blocked while the guest runs, as KVM was told */
    bool mask_set;
    uint64_t old_mask; /* of the thread, during a call */
    bool used;         /* a guest has run on it */
    bool armed;        /* a signal can end the call in progress */
    uint64_t deadline;
    int32_t tid;   /* of the thread in a call */
    int32_t timer; /* kernel timer of the call in progress */
    bool timer_made;
    bool kicked; /* a cancel sent a signal during this call */
};

static int hlsnap__kvm_open(hlsnap_error *err) {
    const int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC), e = errno;
    if (fd >= 0) return fd;
    if (e == ENOENT)
        hlsnap__fail(err, HLSNAP_ERR_HYPERVISOR, e,
                     "there is no /dev/kvm: run `sudo modprobe kvm_intel` or `sudo modprobe kvm_amd`; "
                     "if that fails, switch virtualization on in the firmware, or in the host of this VM");
    else if (e == EACCES)
        hlsnap__fail(err, HLSNAP_ERR_HYPERVISOR, e,
                     "no permission to open /dev/kvm: run `sudo usermod -aG \"$(stat -c %%G /dev/kvm)\" "
                     "\"$USER\"` and log in again");
    else
        hlsnap__fail(err, HLSNAP_ERR_HYPERVISOR, e, "opening /dev/kvm: errno %d", e);
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
    s->efer = 0xd00; /* NXE LMA LME; SCE off */
    s->apic_base = 0xfee00900u;
}

static void hlsnap__kvm_destroy(hlsnap__shell *shell, bool forked) {
    if (shell->run && !forked) munmap(shell->run, shell->run_size);
    if (shell->vcpu >= 0) close(shell->vcpu);
    if (shell->vm >= 0) close(shell->vm);
    hlsnap__free(shell);
}

/* CPUID first: what CR4 and XCR0 may hold depends on it. */
static hlsnap_result hlsnap__kvm_vcpu_setup(hlsnap__shell *shell, const hlsnap__kvm_facts *f, hlsnap_error *err) {
    hlsnap__kvm_xcrs xcrs;
    hlsnap__kvm_msr lstar;
    memset(&xcrs, 0, sizeof(xcrs));
    memset(&lstar, 0, sizeof(lstar));
    xcrs.num = 1;
    xcrs.rows[0].value = f->xcr0;
    lstar.num = 1;
    lstar.index = 0xc0000082u;
    lstar.value = HLSNAP__SYSCALL_GVA;
    if (hlsnap__ioctl(shell->vcpu, HLSNAP__KVM_SET_CPUID2, (uintptr_t)&f->cpuid) < 0)
        return hlsnap__fail(err, HLSNAP_ERR_HYPERVISOR, errno, "KVM_SET_CPUID2: errno %d", errno);
    if (f->xcr0 && hlsnap__ioctl(shell->vcpu, HLSNAP__KVM_SET_XCRS, (uintptr_t)&xcrs) < 0)
        return hlsnap__fail(err, HLSNAP_ERR_HYPERVISOR, errno, "KVM_SET_XCRS 0x%llx: errno %d",
                            (unsigned long long)f->xcr0, errno);
    if (hlsnap__ioctl(shell->vcpu, HLSNAP__KVM_SET_MSRS, (uintptr_t)&lstar) != 1)
        return hlsnap__fail(err, HLSNAP_ERR_HYPERVISOR, errno, "KVM_SET_MSRS: errno %d", errno);
    return HLSNAP_OK;
}

static hlsnap_result hlsnap__kvm_vm_create(hlsnap__shell *shell, int kvm, const hlsnap__kvm_facts *f,
                                           hlsnap_error *err) {
    void *run;
    do shell->vm = hlsnap__ioctl(kvm, HLSNAP__KVM_CREATE_VM, 0);
    while (shell->vm < 0 && errno == EINTR);
    if (shell->vm < 0) return hlsnap__fail(err, HLSNAP_ERR_HYPERVISOR, errno, "KVM_CREATE_VM: errno %d", errno);
    shell->vcpu = hlsnap__ioctl(shell->vm, HLSNAP__KVM_CREATE_VCPU, 0);
    if (shell->vcpu < 0) return hlsnap__fail(err, HLSNAP_ERR_HYPERVISOR, errno, "KVM_CREATE_VCPU: errno %d", errno);
    run = mmap(NULL, f->run_size, PROT_READ | PROT_WRITE, MAP_SHARED, shell->vcpu, 0);
    if (run == MAP_FAILED)
        return hlsnap__fail(err, HLSNAP_ERR_MEMORY, errno, "mapping the vCPU's run page: errno %d", errno);
    shell->run = (hlsnap__kvm_run *)run;
    shell->run_size = f->run_size;
    if (madvise(run, f->run_size, MADV_DONTFORK))
        return hlsnap__fail(err, HLSNAP_ERR_OS, errno, "MADV_DONTFORK: errno %d", errno);
    hlsnap__kvm_sregs_set(&shell->sregs, f);
    shell->run->valid_regs = shell->sync;
    return hlsnap__kvm_vcpu_setup(shell, f, err);
}

static hlsnap_result hlsnap__kvm_create(const hlsnap_hypervisor *hv, int cancel_signal, hlsnap__shell **out,
                                        hlsnap_error *err) {
    const bool known = __atomic_load_n(&hlsnap__kvm_facts_state, __ATOMIC_ACQUIRE) == 2;
    hlsnap__kvm_facts *own = known ? NULL : (hlsnap__kvm_facts *)hlsnap__alloc(1, sizeof(*own), err);
    hlsnap__shell *shell = known || own ? (hlsnap__shell *)hlsnap__alloc(1, sizeof(*shell), err) : NULL;
    const hlsnap__kvm_facts *f = NULL;
    hlsnap_result r = shell ? HLSNAP_OK : HLSNAP_ERR_MEMORY;
    const int kvm = r ? -1 : hlsnap__kvm_open(err);
    *out = NULL;
    if (shell) shell->vm = shell->vcpu = -1;
    if (!r && kvm < 0) r = HLSNAP_ERR_HYPERVISOR;
    if (!r) r = hlsnap__kvm_facts_get(kvm, own, &f, err);
    if (!r) {
        shell->signal = cancel_signal;
        shell->sync = hv->quirks & HLSNAP__KVM_NO_SYNC || f->sync != 7 ? 0 : f->sync;
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

static hlsnap_result hlsnap__kvm_map(hlsnap__shell *shell, void *hva, uint64_t size, hlsnap_error *err) {
    hlsnap__kvm_memory m;
    m.slot = 0;
    m.flags = 0;
    m.gpa = HLSNAP__SYS_GPA;
    m.size = size;
    m.hva = (uint64_t)(uintptr_t)hva;
    shell->sys = (const uint8_t *)hva;
    if (hlsnap__ioctl(shell->vm, HLSNAP__KVM_SET_USER_MEMORY_REGION, (uintptr_t)&m) == 0) return HLSNAP_OK;
    return hlsnap__fail(err, HLSNAP_ERR_HYPERVISOR, errno, "a memory slot of 0x%llx bytes at 0x%llx: errno %d",
                        (unsigned long long)size, (unsigned long long)m.gpa, errno);
}

/* ---- >>kvm-signals: cancel and time limit, without a handler ---- */

static uint64_t hlsnap__kvm_signal_bit(const hlsnap__shell *shell) { return 1ull << (shell->signal - 1); }

static void hlsnap__kvm_sigmask(int how, const uint64_t *mask, uint64_t *old) {
    syscall(SYS_rt_sigprocmask, how, mask, old, sizeof(*mask));
}

/* Consumes the pending cancel signals of this thread. true when one came from the timer of another shell: the time limit
   of a call around this one. */
static bool hlsnap__kvm_drain(hlsnap__shell *shell) {
    static const struct timespec now = {0, 0};
    bool outer = false;
    siginfo_t info;
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, shell->signal);
    while (sigtimedwait(&set, &info, &now) > 0 || errno == EINTR)
        outer = outer || (info.si_code == SI_TIMER && info.si_value.sival_ptr != (void *)shell);
    return outer;
}

/* A timer that signals this thread, made anew for each call: one kept would be silent on another thread, and also on one
   that was given the number of a thread that ended. */
static hlsnap_result hlsnap__kvm_timer_arm(hlsnap__shell *shell, hlsnap_error *err) {
    const uint64_t second = 1000000000u, most = (uint64_t)INT64_MAX / second / 2;
    hlsnap__kvm_sigevent e;
    struct itimerspec when;
    memset(&e, 0, sizeof(e));
    memset(&when, 0, sizeof(when));
    e.value = (uint64_t)(uintptr_t)shell;
    e.signo = shell->signal;
    e.notify = 4; /* SIGEV_THREAD_ID */
    e.tid = shell->tid;
    if (syscall(SYS_timer_create, CLOCK_MONOTONIC, &e, &shell->timer))
        return hlsnap__fail(err, HLSNAP_ERR_OS, errno, "timer_create: errno %d", errno);
    shell->timer_made = true;
    when.it_value.tv_sec = (time_t)(shell->deadline / second < most ? shell->deadline / second : most);
    when.it_value.tv_nsec = (long)(shell->deadline % second);
    if (syscall(SYS_timer_settime, shell->timer, TIMER_ABSTIME, &when, NULL) == 0) return HLSNAP_OK;
    return hlsnap__fail(err, HLSNAP_ERR_OS, errno, "timer_settime: errno %d", errno);
}

static void hlsnap__kvm_end(hlsnap__shell *shell) {
    if (shell->timer_made) syscall(SYS_timer_delete, shell->timer);
    shell->timer_made = false;
    /* what was sent is pending by now: the timer cannot fire early, a cancel returned before the call could end */
    if (shell->armed && (shell->kicked || (shell->deadline && hlsnap__now_ns() >= shell->deadline)))
        hlsnap__kvm_drain(shell);
    __atomic_store_n(&shell->run->immediate_exit, 0, __ATOMIC_RELAXED);
    if (shell->armed && !(shell->old_mask & hlsnap__kvm_signal_bit(shell)))
        hlsnap__kvm_sigmask(2 /* SIG_SETMASK */, &shell->old_mask, NULL);
    shell->armed = shell->kicked = false;
    shell->deadline = 0;
}

/* Tells KVM which signals to block while the guest runs: the thread's own, less the cancel signal. */
static hlsnap_result hlsnap__kvm_mask_set(hlsnap__shell *shell, hlsnap_error *err) {
    const uint64_t mask = shell->old_mask & ~hlsnap__kvm_signal_bit(shell);
    hlsnap__kvm_mask m;
    if (shell->mask_set && shell->mask == mask) return HLSNAP_OK;
    m.size = sizeof(m.bits);
    memcpy(m.bits, &mask, sizeof(m.bits));
    if (hlsnap__ioctl(shell->vcpu, HLSNAP__KVM_SET_SIGNAL_MASK, (uintptr_t)&m) < 0)
        return hlsnap__fail(err, HLSNAP_ERR_HYPERVISOR, errno, "KVM_SET_SIGNAL_MASK: errno %d", errno);
    shell->mask = mask;
    shell->mask_set = true;
    return HLSNAP_OK;
}

/* Signals are prepared only for a call that one can end: it has a time limit, or a handle to cancel it is out, or it is made
   inside such a call of another sandbox, whose signal is blocked on this thread. Once KVM has a mask, it is kept up to date. */
static hlsnap_result hlsnap__kvm_begin(hlsnap__shell *shell, uint64_t deadline_ns, bool cancellable,
                                       hlsnap_error *err) {
    const uint64_t bit = hlsnap__kvm_signal_bit(shell);
    hlsnap_result r;
    if (shell->armed) return HLSNAP_OK;
    if (!deadline_ns && !cancellable && !shell->mask_set) {
        hlsnap__kvm_sigmask(0, NULL, &shell->old_mask);
        if (!(shell->old_mask & bit)) return HLSNAP_OK;
    }
    shell->armed = true;
    hlsnap__kvm_sigmask(0 /* SIG_BLOCK */, &bit, &shell->old_mask);
    shell->tid = (int32_t)syscall(SYS_gettid);
    shell->deadline = deadline_ns;
    r = hlsnap__kvm_mask_set(shell, err);
    if (!r && deadline_ns) r = hlsnap__kvm_timer_arm(shell, err);
    if (r) hlsnap__kvm_end(shell);
    return r;
}

/* The signal ends a KVM_RUN in progress; immediate_exit one that has not begun. A full signal queue is waited for. */
static void hlsnap__kvm_cancel(hlsnap__shell *shell) {
    __atomic_store_n(&shell->run->immediate_exit, 1, __ATOMIC_SEQ_CST);
    shell->kicked = true;
    if (!shell->armed) return; /* not blocked: the signal would end the process; the next exit ends the call */
    while (syscall(SYS_tgkill, getpid(), shell->tid, shell->signal) && errno == EAGAIN) sched_yield();
}

/* ---- >>kvm-run ---- */

static int hlsnap__kvm_enter(hlsnap__shell *shell) { return hlsnap__ioctl(shell->vcpu, HLSNAP__KVM_RUN, 0); }

/* All vector state to its initial values, where the gate cannot do it: x87 and SSE given, the rest absent = initial. */
static bool hlsnap__kvm_scrub(hlsnap__shell *shell) {
    static const uint8_t head[28] = {0x7f, 0x03, 0, 0, 0, 0, 0, 0, 0, 0, 0,    0,    0, 0,
                                     0,    0,    0, 0, 0, 0, 0, 0, 0, 0, 0x80, 0x1f, 0, 0};
    uint64_t area[512];
    memset(area, 0, sizeof(area));
    memcpy(area, head, sizeof(head));
    area[64] = 3; /* XSTATE_BV */
    return hlsnap__ioctl(shell->vcpu, HLSNAP__KVM_SET_XSAVE, (uintptr_t)area) == 0;
}

/* Registers for an entry through the gate. A fresh one rewrites everything a guest can have changed. */
static bool hlsnap__kvm_set(hlsnap__shell *shell, const hlsnap__entry *e, bool gate, bool scrub) {
    hlsnap__kvm_regs own, *regs = shell->sync ? &shell->run->regs : &own;
    memset(regs, 0, sizeof(*regs));
    regs->rip = e->rip;
    if (gate) regs->rip = HLSNAP__SYS_AT(HLSNAP__SYS_GATE) + (scrub ? HLSNAP__GATE_SCRUB : HLSNAP__GATE_ENTER);
    regs->rsp = e->rsp;
    regs->rdi = e->rdi;
    regs->r11 = e->rip;
    regs->rflags = 0x202; /* IF: does nothing on hardware, as nothing is ever injected; an emulator may keep the host's
                             timer from guests that have it off */
    if (scrub) {
        regs->rax = regs->rdx = 0xffffffffu;
        regs->r10 = HLSNAP__SYS_AT(HLSNAP__SYS_XSAVE);
    }
    shell->sregs.fs.base = e->fs_base;
    if (shell->sync) {
        shell->run->dirty_regs = HLSNAP__KVM_SYNC_REGS;
        if (!e->fresh) return true;
        shell->run->sregs = shell->sregs;
        memset(&shell->run->events, 0, sizeof(shell->run->events));
        shell->run->dirty_regs |= HLSNAP__KVM_SYNC_SREGS | HLSNAP__KVM_SYNC_EVENTS;
        return true;
    }
    if (e->fresh) {
        hlsnap__kvm_events none;
        memset(&none, 0, sizeof(none));
        if (hlsnap__ioctl(shell->vcpu, HLSNAP__KVM_SET_SREGS, (uintptr_t)&shell->sregs) < 0 ||
            hlsnap__ioctl(shell->vcpu, HLSNAP__KVM_SET_VCPU_EVENTS, (uintptr_t)&none) < 0)
            return false;
    }
    return hlsnap__ioctl(shell->vcpu, HLSNAP__KVM_SET_REGS, (uintptr_t)&own) == 0;
}

static void hlsnap__kvm_dead(hlsnap__exit *x, hlsnap__exit_kind kind, int os_errno, const char *what, uint64_t detail) {
    x->kind = kind;
    x->dead = true;
    x->os_errno = os_errno;
    hlsnap__format(x->what, sizeof(x->what), "%s 0x%llx", what, (unsigned long long)detail);
}

/* The exception frame that the CPU pushed before the stub's OUT. */
static void hlsnap__kvm_fault(hlsnap__shell *shell, uint32_t vector, hlsnap__exit *x) {
    const uint64_t stack = HLSNAP__SYS_AT(HLSNAP__SYS_STACK), with_code = 0x60227d00u;
    hlsnap__kvm_regs regs = shell->run->regs;
    hlsnap__kvm_sregs sregs = shell->run->sregs;
    const uint8_t *frame;
    if (!shell->sync && (hlsnap__ioctl(shell->vcpu, HLSNAP__KVM_GET_REGS, (uintptr_t)&regs) < 0 ||
                         hlsnap__ioctl(shell->vcpu, HLSNAP__KVM_GET_SREGS, (uintptr_t)&sregs) < 0)) {
        hlsnap__kvm_dead(x, HLSNAP__EXIT_DEAD, errno, "reading the registers of a fault, vector", vector);
        return;
    }
    if (regs.rsp < stack || regs.rsp > stack + HLSNAP__PAGE - 40 || regs.rsp % 8) {
        hlsnap__kvm_dead(x, HLSNAP__EXIT_DEAD, 0, "an exception frame out of place, rsp", regs.rsp);
        return;
    }
    frame = shell->sys + (regs.rsp - HLSNAP__SYS_GVA);
    x->kind = HLSNAP__EXIT_FAULT;
    x->vector = vector;
    if (with_code >> vector & 1) {
        x->error_code = (uint32_t)hlsnap__get64(frame);
        frame += 8;
    }
    x->rip = hlsnap__get64(frame);
    x->cr2 = sregs.cr2;
    if ((hlsnap__get64(frame + 8) & 3) != 3)
        hlsnap__kvm_dead(x, HLSNAP__EXIT_DEAD, 0, "an exception in the supervisor area, rip", x->rip);
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
    __atomic_store_n(&shell->run->immediate_exit, 1, __ATOMIC_SEQ_CST);
    x->dead = hlsnap__kvm_enter(shell) == 0 || errno != EINTR;
    if (!shell->kicked) __atomic_store_n(&shell->run->immediate_exit, 0, __ATOMIC_SEQ_CST);
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
        hlsnap__kvm_dead(x, HLSNAP__EXIT_PROTOCOL, 0, "a triple fault, KVM exit", run->exit_reason);
        break;
    case HLSNAP__KVM_EXIT_INTERNAL_ERROR:
        hlsnap__kvm_dead(x, HLSNAP__EXIT_PROTOCOL, 0, "an instruction KVM cannot run, suberror",
                         run->exit.internal.suberror);
        break;
    case HLSNAP__KVM_EXIT_FAIL_ENTRY:
        hlsnap__kvm_dead(x, HLSNAP__EXIT_DEAD, 0, "VM entry refused, reason",
                         run->exit.fail_entry.hardware_entry_failure_reason);
        break;
    default: hlsnap__kvm_protocol(shell, x); break;
    }
}

static bool hlsnap__kvm_in_gate(const hlsnap__exit *x) {
    return x->kind == HLSNAP__EXIT_FAULT && x->rip - HLSNAP__SYS_AT(HLSNAP__SYS_GATE) < HLSNAP__PAGE;
}

static void hlsnap__kvm_run_to_exit(hlsnap__shell *shell, const hlsnap__entry *entry, hlsnap__exit *x) {
    const bool used = shell->used; /* a new vCPU has no vector state to clear and no exit to complete: no gate */
    const bool scrub = entry && entry->fresh && used && shell->gate_scrubs;
    int r;
    shell->used = true;
    if (entry && entry->fresh && used && !scrub && !hlsnap__kvm_scrub(shell)) {
        hlsnap__kvm_dead(x, HLSNAP__EXIT_DEAD, errno, "KVM_SET_XSAVE, errno", (uint64_t)errno);
        return;
    }
    if (entry && !hlsnap__kvm_set(shell, entry, used, scrub)) {
        hlsnap__kvm_dead(x, HLSNAP__EXIT_DEAD, errno, "setting registers, errno", (uint64_t)errno);
        return;
    }
    r = hlsnap__kvm_enter(shell);
    if (r == 0) {
        hlsnap__kvm_exit(shell, x);
        return;
    }
    if (errno == EINTR || errno == EAGAIN) {
        x->kind = HLSNAP__EXIT_KICKED;
        x->outer = hlsnap__kvm_drain(shell);
        return;
    }
    hlsnap__kvm_dead(x, HLSNAP__EXIT_DEAD, errno, "KVM_RUN, errno", (uint64_t)errno);
}

static void hlsnap__kvm_run_guest(hlsnap__shell *shell, const hlsnap__entry *entry, hlsnap__exit *x) {
    const bool scrub = entry && entry->fresh && shell->used && shell->gate_scrubs;
    hlsnap__kvm_run_to_exit(shell, entry, x);
    if (!scrub || shell->gate_works) return;
    /* The first XRSTOR of this vCPU: does the CPU take it? Later on only a guest that jumps into the gate faults there. A
       fresh entry may be tried again, since it sets the segments too: the fault left the vCPU at CPL 0 in a stub. */
    shell->gate_works = x->kind == HLSNAP__EXIT_RETURN || x->kind == HLSNAP__EXIT_CALL;
    if (!hlsnap__kvm_in_gate(x)) return;
    shell->gate_scrubs = false;
    memset(x, 0, sizeof(*x));
    hlsnap__kvm_run_to_exit(shell, entry, x);
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
                                                         hlsnap__kvm_cancel};

HLSNAP_API const hlsnap_hypervisor *hlsnap_kvm(void) { return &hlsnap__kvm_hypervisor; }

HLSNAP_API hlsnap_result hlsnap_kvm_probe(hlsnap_error *err) {
    hlsnap__shell *shell;
    const hlsnap_result r = hlsnap__kvm_create(&hlsnap__kvm_hypervisor, SIGRTMIN + 3, &shell, err);
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

static hlsnap_result hlsnap__kvm_create(const hlsnap_hypervisor *hv, int cancel_signal, hlsnap__shell **out,
                                        hlsnap_error *err) {
    (void)hv;
    (void)cancel_signal;
    *out = NULL;
    return hlsnap__fail(err, HLSNAP_ERR_HYPERVISOR, 0, "hlsnap_kvm: x86-64 only, and this program is of another architecture");
}

static const hlsnap_hypervisor hlsnap__kvm_hypervisor = {"kvm", 0, hlsnap__kvm_create, NULL, NULL, NULL, NULL, NULL, NULL};

HLSNAP_API const hlsnap_hypervisor *hlsnap_kvm(void) { return &hlsnap__kvm_hypervisor; }

HLSNAP_API hlsnap_result hlsnap_kvm_probe(hlsnap_error *err) {
    hlsnap__shell *shell;
    return hlsnap__kvm_create(&hlsnap__kvm_hypervisor, 0, &shell, err);
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

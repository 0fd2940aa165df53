/* limit.h - the raw physical cost of each operation, in plain ioctls, memcpy and sha256. Includes
   no hlsnap header.

   Do this:
       limit_ctx c;
       if (limit_open(&c, dir) != 0) { puts(c.error); return 1; }
       double ns = limit_exit(&c, 200);                 // one block: the median of 200 operations
       if (ns < 0) puts(c.error);
       limit_close(&c);

   Every limit is `double limit_X(limit_ctx *c, int iterations)`: the median nanoseconds per
   operation of this block, or -1 with c->error set. A block warms up by itself and leaves the
   context as it found it, so blocks of limits and blocks of the thing under test can be interleaved
   in any order. One context serves one thread.

   SHA-256 of one message is OpenSSL's EVP. Chunks are hashed 16 at a time where the CPU has AVX-512
   (>>sha256, 80 lines, checked against EVP): twice as fast as EVP, so a limit without it would
   forgive twice as much. c->lanes = 0 turns it off.

   Link with -lcrypto. Needs /dev/kvm; without it limit_open fails with c->error, which is the place
   to skip.

   Not included in any figure: fork and exec of a process, and KVM_GET_SUPPORTED_CPUID except in
   limit_process_facts. */
#ifndef LIMIT_H
#define LIMIT_H

#include <errno.h>
#include <fcntl.h>
#include <immintrin.h>
#include <linux/kvm.h>
#include <openssl/evp.h>
#include <spawn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "compute.h"

#ifndef MAP_ANONYMOUS
#error "compile with -std=gnu11, or include limit.h before any system header with -D_GNU_SOURCE"
#endif

#define LIMIT_FN static __attribute__((unused))

/* ==== >>types ==== */

enum {
    LIMIT_PAGE = 4096,
    LIMIT_MEM_SIZE = 64 << 20,  /* guest memory, bytes */
    LIMIT_MEM_BASE = 2 << 20,   /* its guest-physical and guest-virtual address */
    LIMIT_SYS_BASE = 256 << 20, /* the supervisor area, both addresses */
    LIMIT_SYS_PAGES = 8,
    LIMIT_MAP_BASE = 512 << 20, /* a map, both addresses */
    LIMIT_MAP_SIZE = 2 << 20,
    LIMIT_WINDOW = 4 << 20, /* offset in guest memory of what restore and snapshot work on */
    LIMIT_WINDOW_PAGES = 1024,
    LIMIT_CHUNK = 65536,   /* bytes of a chunk of a blob */
    LIMIT_BATCH = 1 << 20, /* bytes read and hashed at a time: 16 chunks */
    LIMIT_PORT = 0x60,   /* the only port that the TSS bitmap allows */
    LIMIT_MAX_CPUID = 256
};

/* What a figure needs of Linux that older headers lack. */
enum {
    LIMIT_MFD_CLOEXEC = 1,
    LIMIT_MFD_ALLOW_SEALING = 2,
    LIMIT_F_ADD_SEALS = 1033,
    LIMIT_SEALS = 1 | 2 | 4 | 8, /* SEAL SHRINK GROW WRITE */
    LIMIT_MADV_POPULATE_WRITE = 23
};

/* Pages of guest memory. Code, data, message and stack lie within one aligned group of 8, so that
   the MMU of a hypervisor with shadow paging can map all of them on one fault. */
enum {
    LIMIT_PG_CODE = 0,
    LIMIT_PG_DATA = 1,
    LIMIT_PG_MESSAGE = 2,
    LIMIT_PG_STACK = 3,
    LIMIT_PG_COUNT = 4
};

/* Offsets of the functions in the code page. */
enum {
    LIMIT_FN_EXIT = 0x00,
    LIMIT_FN_TOUCH = 0x10,
    LIMIT_FN_FIRST = 0x30,
    LIMIT_FN_READ = 0x50
};

typedef struct limit_vm {
    int vm; /* -1: none; the same for vcpu */
    int vcpu;
    uint8_t *mem; /* LIMIT_MEM_SIZE bytes, MAP_PRIVATE of a sealed memfd */
    uint8_t *sys; /* LIMIT_SYS_PAGES pages, private to this VM */
    struct kvm_run *run;
} limit_vm;

typedef struct limit_ctx {
    int kvm;                 /* /dev/kvm */
    int image;               /* sealed memfd, LIMIT_MEM_SIZE bytes: code, data and the window */
    const uint8_t *pristine; /* read-only view of the image's window */
    size_t run_size;
    struct kvm_cpuid2 *cpuid;
    uint64_t cr4;
    uint64_t xcr0;
    limit_vm vm; /* the warm VM of exit, host_call and restore_call */
    double *samples;
    int num_samples;
    EVP_MD *sha256;
    EVP_MD_CTX *hash;
    int lanes;         /* hash 16 chunks at a time; 0 where the CPU has no AVX-512 */
    uint32_t start[8]; /* of SHA-256, and its round constants */
    uint32_t k[64];
    uint8_t *buffer;     /* LIMIT_BATCH bytes */
    char *load_path;     /* the file of load_mapped and load_private; load_size bytes */
    size_t load_size;
    uint8_t *sums;       /* 32 bytes for each chunk of it, after a load */
    const uint8_t *text; /* what verify hashes: text_size bytes, borrowed */
    size_t text_size;
    const char *map_path; /* the file of limit_map; NULL: it maps map_data; both borrowed */
    uint8_t *map_data;    /* LIMIT_MAP_SIZE bytes; the file's, if there is one */
    size_t map_pages;     /* of these are read */
    size_t delta_size;   /* bytes of the new layer of delta_save; at most blob_size */
    uint8_t *blob; /* blob_size bytes that start with the image's first pages */
    size_t blob_size;
    char *dir;              /* where files go */
    char *blob_path;        /* dir/limit.blob, blob_size bytes */
    const char *header;     /* for limit_include_header: a path, borrowed */
    volatile uint64_t seed; /* 1, unknown to the optimiser */
    char error[256];
} limit_ctx;

/* ==== >>measuring ==== */

LIMIT_FN double limit_fail(limit_ctx *c, const char *what)
{
    if (!c->error[0])
        snprintf(c->error, sizeof c->error, "%.160s: %.80s", what,
                 errno ? strerror(errno) : "failed");
    return -1.0;
}

LIMIT_FN double limit_now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

LIMIT_FN int limit_compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

LIMIT_FN double limit_median(double *samples, int n)
{
    qsort(samples, (size_t)n, sizeof *samples, limit_compare);
    return n % 2 ? samples[n / 2] : (samples[n / 2 - 1] + samples[n / 2]) / 2;
}

/* Room for the samples of a block, or NULL. */
LIMIT_FN double *limit_begin(limit_ctx *c, int iterations)
{
    errno = 0;
    c->error[0] = 0;
    if (iterations < 1) {
        limit_fail(c, "iterations < 1");
        return NULL;
    }
    if (iterations > c->num_samples) {
        double *p = (double *)realloc(c->samples, (size_t)iterations * sizeof *p);
        if (!p) {
            limit_fail(c, "realloc");
            return NULL;
        }
        c->samples = p;
        c->num_samples = iterations;
    }
    return c->samples;
}

/* One block of an operation that times itself: op returns the nanoseconds of one run, or -1. */
LIMIT_FN double limit_block(limit_ctx *c, int iterations, int warmup, double (*op)(limit_ctx *))
{
    double *s = limit_begin(c, iterations);

    if (!s)
        return -1.0;
    for (int i = -warmup; i < iterations; i++) {
        double ns = op(c);
        if (ns < 0)
            return limit_fail(c, "operation");
        if (i >= 0)
            s[i] = ns;
    }
    return limit_median(s, iterations);
}

/* ==== >>machine ====
   The VM that is best for this work: guest code at CPL3 in long mode, W^X tables with A and D
   preset, registers through KVM_CAP_SYNC_REGS, a TSS whose bitmap allows one port, fault stubs of
   one OUT each. */

/* Page numbers of the supervisor area. */
enum {
    LIMIT_SYS_PML4,
    LIMIT_SYS_PDPT,
    LIMIT_SYS_PD,
    LIMIT_SYS_PT_MEM,
    LIMIT_SYS_PT_SYS,
    LIMIT_SYS_DESC,
    LIMIT_SYS_STUBS,
    LIMIT_SYS_RSP0
};

/* Offsets in the descriptor page. */
enum {
    LIMIT_GDT = 0,
    LIMIT_IDT = 256,
    LIMIT_TSS = 1024,
    LIMIT_TSS_LIMIT = 104 + LIMIT_PORT / 8 + 1
};

/* Page table bits: present, writable, user, accessed, dirty, 2 MiB, no-execute. */
#define LIMIT_P UINT64_C(0x1)
#define LIMIT_W UINT64_C(0x2)
#define LIMIT_U UINT64_C(0x4)
#define LIMIT_A UINT64_C(0x20)
#define LIMIT_D UINT64_C(0x40)
#define LIMIT_2M UINT64_C(0x80)
#define LIMIT_NX (UINT64_C(1) << 63)

LIMIT_FN uint64_t *limit_sys_page(uint8_t *sys, int page)
{
    return (uint64_t *)(void *)(sys + page * LIMIT_PAGE);
}

LIMIT_FN uint64_t limit_sys_addr(int page)
{
    return (uint64_t)LIMIT_SYS_BASE + (uint64_t)page * LIMIT_PAGE;
}

/* Guest memory: the first 2 MiB in 4 KiB pages with the code read+execute, the rest in 2 MiB pages;
   all but the code is RW+NX. */
LIMIT_FN void limit_build_tables(uint8_t *sys)
{
    const uint64_t link = LIMIT_P | LIMIT_W | LIMIT_U | LIMIT_A;
    const uint64_t rw = LIMIT_P | LIMIT_W | LIMIT_A | LIMIT_D | LIMIT_NX;
    uint64_t *pd = limit_sys_page(sys, LIMIT_SYS_PD);
    uint64_t *mem = limit_sys_page(sys, LIMIT_SYS_PT_MEM);
    uint64_t *top = limit_sys_page(sys, LIMIT_SYS_PT_SYS);

    limit_sys_page(sys, LIMIT_SYS_PML4)[0] = limit_sys_addr(LIMIT_SYS_PDPT) | link;
    limit_sys_page(sys, LIMIT_SYS_PDPT)[0] = limit_sys_addr(LIMIT_SYS_PD) | link;
    pd[LIMIT_MEM_BASE >> 21] = limit_sys_addr(LIMIT_SYS_PT_MEM) | link;
    pd[LIMIT_SYS_BASE >> 21] = limit_sys_addr(LIMIT_SYS_PT_SYS) | (link & ~LIMIT_U);
    for (uint64_t i = 1; i < LIMIT_MEM_SIZE >> 21; i++)
        pd[(LIMIT_MEM_BASE >> 21) + i] = (LIMIT_MEM_BASE + (i << 21)) | rw | LIMIT_U | LIMIT_2M;
    for (uint64_t i = 0; i < LIMIT_PG_COUNT; i++)
        mem[i] = (LIMIT_MEM_BASE + i * LIMIT_PAGE) | rw | LIMIT_U;
    mem[LIMIT_PG_CODE] =
        (LIMIT_MEM_BASE + LIMIT_PG_CODE * LIMIT_PAGE) | LIMIT_P | LIMIT_U | LIMIT_A | LIMIT_D;
    top[LIMIT_SYS_DESC] = limit_sys_addr(LIMIT_SYS_DESC) | LIMIT_P | LIMIT_A | LIMIT_D | LIMIT_NX;
    top[LIMIT_SYS_STUBS] = limit_sys_addr(LIMIT_SYS_STUBS) | LIMIT_P | LIMIT_A | LIMIT_D;
    top[LIMIT_SYS_RSP0] = limit_sys_addr(LIMIT_SYS_RSP0) | rw;
}

/* GDT: kernel code, kernel data, user data, user code, TSS. IDT: 32 gates to fault stubs, each
   `out %al, $(0x20 + vector)`. */
LIMIT_FN void limit_build_descriptors(uint8_t *sys)
{
    uint8_t *desc = sys + LIMIT_SYS_DESC * LIMIT_PAGE;
    uint8_t *stubs = sys + LIMIT_SYS_STUBS * LIMIT_PAGE;
    uint64_t tss = limit_sys_addr(LIMIT_SYS_DESC) + LIMIT_TSS;
    uint64_t rsp0 = limit_sys_addr(LIMIT_SYS_RSP0 + 1);
    uint16_t bitmap = 104;
    uint64_t gdt[7] = { 0, 0x00af9b000000ffff, 0x00cf93000000ffff, 0x00cff3000000ffff,
                        0x00affb000000ffff };

    gdt[5] =
        LIMIT_TSS_LIMIT | (tss & 0xffffff) << 16 | UINT64_C(0x8b) << 40 | (tss >> 24 & 0xff) << 56;
    gdt[6] = tss >> 32;
    memcpy(desc + LIMIT_GDT, gdt, sizeof gdt);
    for (uint64_t v = 0; v < 32; v++) {
        uint64_t to = limit_sys_addr(LIMIT_SYS_STUBS) + 2 * v;
        uint64_t gate[2] = {
            (to & 0xffff) | 0x08 << 16 | UINT64_C(0xee) << 40 | (to >> 16 & 0xffff) << 48, to >> 32
        };
        memcpy(desc + LIMIT_IDT + v * sizeof gate, gate, sizeof gate);
        stubs[2 * v] = 0xe6;
        stubs[2 * v + 1] = (uint8_t)(0x20 + v);
    }
    memcpy(desc + LIMIT_TSS + 4, &rsp0, sizeof rsp0);
    memcpy(desc + LIMIT_TSS + 102, &bitmap, sizeof bitmap);
    memset(desc + LIMIT_TSS + bitmap, 0xff, LIMIT_PORT / 8 + 2);
    desc[LIMIT_TSS + bitmap + LIMIT_PORT / 8] = (uint8_t) ~(1u << LIMIT_PORT % 8);
}

/* The guest's code page. */
LIMIT_FN void limit_build_code(uint8_t *page)
{
    // clang-format off
    static const uint8_t on_exit[] = {
        0x90,                                     /*    nop: see limit_set_regs */
        0xe6, LIMIT_PORT,                         /* 1: out %al, $LIMIT_PORT */
        0xeb, 0xfc                                /*    jmp 1b */
    };
    static const uint8_t on_touch[] = {           /* rdi = address, rsi = pages, rdx = word */
        0x48, 0x85, 0xf6,                         /*    test %rsi, %rsi */
        0x74, 0x0f,                               /*    jz 2f */
        0x48, 0x89, 0x17,                         /* 1: mov %rdx, (%rdi) */
        0x48, 0x81, 0xc7, 0x00, 0x10, 0x00, 0x00, /*    add $4096, %rdi */
        0x48, 0xff, 0xce,                         /*    dec %rsi */
        0x75, 0xf1,                               /*    jnz 1b */
        0xe6, LIMIT_PORT,                         /* 2: out %al, $LIMIT_PORT */
        0x0f, 0x0b                                /*    ud2 */
    };
    static const uint8_t on_first[] = {           /* rdi = data, rsi = message, rsp = stack */
        0x53,                                     /*    push %rbx */
        0x48, 0x8b, 0x06,                         /*    mov (%rsi), %rax */
        0x48, 0x8b, 0x1f,                         /*    mov (%rdi), %rbx */
        0x48, 0x01, 0xc3,                         /*    add %rax, %rbx */
        0x48, 0x89, 0x1f,                         /*    mov %rbx, (%rdi) */
        0x48, 0x89, 0x1e,                         /*    mov %rbx, (%rsi) */
        0x5b,                                     /*    pop %rbx */
        0xe6, LIMIT_PORT,                         /*    out %al, $LIMIT_PORT */
        0x0f, 0x0b                                /*    ud2 */
    };
    static const uint8_t on_read[] = {            /* rdi = address, rsi = pages, rax = 0 */
        0x48, 0x03, 0x07,                         /* 1: add (%rdi), %rax */
        0x48, 0x81, 0xc7, 0x00, 0x10, 0x00, 0x00, /*    add $4096, %rdi */
        0x48, 0xff, 0xce,                         /*    dec %rsi */
        0x75, 0xf1,                               /*    jnz 1b */
        0xe6, LIMIT_PORT,                         /*    out %al, $LIMIT_PORT */
        0x0f, 0x0b                                /*    ud2 */
    };
    // clang-format on

    memcpy(page + LIMIT_FN_EXIT, on_exit, sizeof on_exit);
    memcpy(page + LIMIT_FN_TOUCH, on_touch, sizeof on_touch);
    memcpy(page + LIMIT_FN_FIRST, on_first, sizeof on_first);
    memcpy(page + LIMIT_FN_READ, on_read, sizeof on_read);
}

LIMIT_FN struct kvm_segment limit_segment(uint16_t selector, uint8_t type, uint8_t dpl)
{
    struct kvm_segment s;

    memset(&s, 0, sizeof s);
    s.limit = 0xffffffff;
    s.selector = selector;
    s.type = type;
    s.present = s.s = s.g = 1;
    s.dpl = dpl;
    s.l = (uint8_t)(type & 8 ? 1 : 0);
    s.db = (uint8_t)!s.l;
    return s;
}

LIMIT_FN void limit_set_sregs(const limit_ctx *c, struct kvm_sregs *s)
{
    memset(s, 0, sizeof *s);
    s->cs = limit_segment(0x23, 0xb, 3);
    s->ds = s->es = s->fs = s->gs = s->ss = limit_segment(0x1b, 0x3, 3);
    s->tr = limit_segment(0x28, 0xb, 0);
    s->tr.base = limit_sys_addr(LIMIT_SYS_DESC) + LIMIT_TSS;
    s->tr.limit = LIMIT_TSS_LIMIT;
    s->tr.s = s->tr.g = s->tr.l = s->tr.db = 0;
    s->ldt.type = 2;
    s->ldt.unusable = 1;
    s->gdt.base = limit_sys_addr(LIMIT_SYS_DESC) + LIMIT_GDT;
    s->gdt.limit = 7 * 8 - 1;
    s->idt.base = limit_sys_addr(LIMIT_SYS_DESC) + LIMIT_IDT;
    s->idt.limit = 32 * 16 - 1;
    s->cr0 = 0x80050033; /* PG AM WP NE ET MP PE */
    s->cr3 = limit_sys_addr(LIMIT_SYS_PML4);
    s->cr4 = c->cr4;
    s->efer = 0xd00; /* NXE LMA LME */
    s->apic_base = 0xfee00900;
}

/* Registers for one guest function. No function starts with an OUT: on VMX and SVM an instruction
   that has exited is completed on the next KVM_RUN if RIP still points at it. */
LIMIT_FN void limit_set_regs(limit_vm *v, int fn, uint64_t rdi, uint64_t rsi, uint64_t rdx)
{
    struct kvm_regs *r = &v->run->s.regs.regs;

    memset(r, 0, sizeof *r);
    r->rip = (uint64_t)LIMIT_MEM_BASE + LIMIT_PG_CODE * LIMIT_PAGE + (uint64_t)fn;
    r->rsp = LIMIT_MEM_BASE + (LIMIT_PG_STACK + 1) * LIMIT_PAGE - 64;
    r->rflags = 2;
    r->rdi = rdi;
    r->rsi = rsi;
    r->rdx = rdx;
    v->run->kvm_dirty_regs |= KVM_SYNC_X86_REGS;
}

/* Run to the guest's OUT. */
LIMIT_FN int limit_run(limit_ctx *c, limit_vm *v)
{
    struct kvm_run *r = v->run;

    while (ioctl(v->vcpu, KVM_RUN, 0) != 0)
        if (errno != EINTR && errno != EAGAIN)
            return (int)limit_fail(c, "KVM_RUN");
    if (r->exit_reason == KVM_EXIT_IO && r->io.direction == KVM_EXIT_IO_OUT &&
        r->io.port == LIMIT_PORT)
        return 0;
    errno = 0;
    snprintf(c->error, sizeof c->error,
             "KVM_RUN: exit reason %u, port or suberror 0x%x, cr2 0x%llx", r->exit_reason,
             r->exit_reason == KVM_EXIT_IO ? r->io.port : r->internal.suberror,
             (unsigned long long)r->s.regs.sregs.cr2);
    return -1;
}

/* Step 1 of 4: memory. The pages that the first call writes are made private here: cheaper by the
   host than by the guest. */
LIMIT_FN int limit_vm_map(limit_ctx *c, limit_vm *v, int image)
{
    void *mem =
        mmap(NULL, LIMIT_MEM_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_NORESERVE, image, 0);
    void *sys = mmap(NULL, LIMIT_SYS_PAGES * LIMIT_PAGE, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);

    v->mem = mem == MAP_FAILED ? NULL : (uint8_t *)mem;
    v->sys = sys == MAP_FAILED ? NULL : (uint8_t *)sys;
    if (!v->mem || !v->sys)
        return (int)limit_fail(c, "mmap of guest memory");
    madvise(v->mem, LIMIT_PG_COUNT * LIMIT_PAGE, LIMIT_MADV_POPULATE_WRITE);
    limit_build_tables(v->sys);
    limit_build_descriptors(v->sys);
    return 0;
}

/* Step 2 of 4: the VM and its two memory slots. */
LIMIT_FN int limit_vm_open(limit_ctx *c, limit_vm *v)
{
    struct kvm_userspace_memory_region slot;

    v->vm = ioctl(c->kvm, KVM_CREATE_VM, 0);
    if (v->vm < 0)
        return (int)limit_fail(c, "KVM_CREATE_VM");
    memset(&slot, 0, sizeof slot);
    slot.guest_phys_addr = LIMIT_MEM_BASE;
    slot.memory_size = LIMIT_MEM_SIZE;
    slot.userspace_addr = (uintptr_t)v->mem;
    if (ioctl(v->vm, KVM_SET_USER_MEMORY_REGION, &slot) != 0)
        return (int)limit_fail(c, "KVM_SET_USER_MEMORY_REGION");
    slot.slot = 1;
    slot.guest_phys_addr = LIMIT_SYS_BASE;
    slot.memory_size = LIMIT_SYS_PAGES * LIMIT_PAGE;
    slot.userspace_addr = (uintptr_t)v->sys;
    if (ioctl(v->vm, KVM_SET_USER_MEMORY_REGION, &slot) != 0)
        return (int)limit_fail(c, "KVM_SET_USER_MEMORY_REGION");
    return 0;
}

/* Step 3 of 4: the vCPU. */
LIMIT_FN int limit_vm_cpu(limit_ctx *c, limit_vm *v)
{
    struct kvm_xcrs xcrs;
    void *run;

    v->vcpu = ioctl(v->vm, KVM_CREATE_VCPU, 0);
    if (v->vcpu < 0)
        return (int)limit_fail(c, "KVM_CREATE_VCPU");
    run = mmap(NULL, c->run_size, PROT_READ | PROT_WRITE, MAP_SHARED, v->vcpu, 0);
    v->run = run == MAP_FAILED ? NULL : (struct kvm_run *)run;
    if (!v->run)
        return (int)limit_fail(c, "mmap of kvm_run");
    if (ioctl(v->vcpu, KVM_SET_CPUID2, c->cpuid) != 0)
        return (int)limit_fail(c, "KVM_SET_CPUID2");
    memset(&xcrs, 0, sizeof xcrs);
    xcrs.nr_xcrs = 1;
    xcrs.xcrs[0].value = c->xcr0;
    if (c->xcr0 && ioctl(v->vcpu, KVM_SET_XCRS, &xcrs) != 0)
        return (int)limit_fail(c, "KVM_SET_XCRS");
    return 0;
}

/* Step 4 of 4: the first call. The host writes its argument into the message page, as any call
   must. */
LIMIT_FN int limit_vm_first(limit_ctx *c, limit_vm *v)
{
    const uint64_t argument = 7;

    memcpy(v->mem + LIMIT_PG_MESSAGE * LIMIT_PAGE, &argument, sizeof argument);
    limit_set_sregs(c, &v->run->s.regs.sregs);
    limit_set_regs(v, LIMIT_FN_FIRST, LIMIT_MEM_BASE + LIMIT_PG_DATA * LIMIT_PAGE,
                   LIMIT_MEM_BASE + LIMIT_PG_MESSAGE * LIMIT_PAGE, 0);
    v->run->kvm_dirty_regs = KVM_SYNC_X86_REGS | KVM_SYNC_X86_SREGS;
    v->run->kvm_valid_regs = KVM_SYNC_X86_REGS;
    return limit_run(c, v);
}

LIMIT_FN int limit_vm_create(limit_ctx *c, limit_vm *v, int image)
{
    if (limit_vm_map(c, v, image) != 0 || limit_vm_open(c, v) != 0 || limit_vm_cpu(c, v) != 0)
        return -1;
    return limit_vm_first(c, v);
}

LIMIT_FN limit_vm limit_vm_none(void)
{
    limit_vm v;

    memset(&v, 0, sizeof v);
    v.vm = v.vcpu = -1;
    return v;
}

/* Accepts half-built machines. */
LIMIT_FN void limit_vm_destroy(const limit_ctx *c, limit_vm *v)
{
    if (v->run)
        munmap(v->run, c->run_size);
    if (v->vcpu >= 0)
        close(v->vcpu);
    if (v->vm >= 0)
        close(v->vm);
    if (v->mem)
        munmap(v->mem, LIMIT_MEM_SIZE);
    if (v->sys)
        munmap(v->sys, LIMIT_SYS_PAGES * LIMIT_PAGE);
    *v = limit_vm_none();
}

/* Did the first call do its work: data page and message page hold data + argument. */
LIMIT_FN int limit_vm_check(limit_ctx *c, const limit_vm *v)
{
    uint64_t word[2], pristine;

    memcpy(&word[0], v->mem + LIMIT_PG_DATA * LIMIT_PAGE, sizeof word[0]);
    memcpy(&word[1], v->mem + LIMIT_PG_MESSAGE * LIMIT_PAGE, sizeof word[1]);
    memcpy(&pristine, c->blob + LIMIT_PG_DATA * LIMIT_PAGE, sizeof pristine);
    errno = 0;
    if (word[0] != pristine + 7 || word[1] != word[0])
        return (int)limit_fail(c, "the guest's first call left a wrong result");
    return 0;
}

/* ==== >>sha256 ==== */

/* One SHA-256 digest; the caller says nothing of its value, the cost is what counts. */
LIMIT_FN int limit_sha256(limit_ctx *c, const uint8_t *p, size_t size, uint8_t digest[32])
{
    if (EVP_DigestInit_ex2(c->hash, c->sha256, NULL) != 1 ||
        EVP_DigestUpdate(c->hash, p, size) != 1 || EVP_DigestFinal_ex(c->hash, digest, NULL) != 1)
        return (int)limit_fail(c, "EVP_Digest");
    return 0;
}

/* The first 32 bits of the fraction of a root of p, which FIPS 180-4 makes its constants of. */
LIMIT_FN uint32_t limit_root(uint32_t p, int power)
{
    uint64_t r = 0;

    for (uint64_t bit = UINT64_C(1) << 36; bit; bit >>= 1) {
        unsigned __int128 x = r | bit, n = p;
        if ((power == 2 ? x * x : x * x * x) <= n << 32 * power)
            r |= bit;
    }
    return (uint32_t)r;
}

/* Square roots of the first 8 primes, cube roots of the first 64. */
LIMIT_FN void limit_constants(uint32_t start[8], uint32_t k[64])
{
    uint32_t n = 0;

    for (uint32_t p = 2, d; n < 64; p++) {
        for (d = 2; p % d;)
            d++;
        if (d != p)
            continue;
        if (n < 8)
            start[n] = limit_root(p, 2);
        k[n++] = limit_root(p, 3);
    }
}

/* 16 messages at a time: a vector holds a word of each. w is a ring of the last 16 words. */
typedef uint32_t limit_vec __attribute__((vector_size(64)));
#define LIMIT_AVX512 __attribute__((target("avx512f,avx512bw"))) LIMIT_FN
#define LIMIT_ROR(x, n) ((limit_vec)_mm512_ror_epi32((__m512i)(x), n))
#define LIMIT_LOGIC(x, y, z, table)                                                                \
    ((limit_vec)_mm512_ternarylogic_epi32((__m512i)(x), (__m512i)(y), (__m512i)(z), table))
#define LIMIT_XOR(x, y, z) LIMIT_LOGIC(x, y, z, 0x96)
#define LIMIT_WORD(i) w[(i) & 15]
#define LIMIT_ROUND(a, b, c, d, e, f, g, h, i)                                                     \
    h += LIMIT_WORD(i) + k[i] + LIMIT_LOGIC(e, f, g, 0xca) +                                       \
         LIMIT_XOR(LIMIT_ROR(e, 6), LIMIT_ROR(e, 11), LIMIT_ROR(e, 25));                           \
    d += h;                                                                                        \
    h += LIMIT_LOGIC(a, b, c, 0xe8) +                                                              \
         LIMIT_XOR(LIMIT_ROR(a, 2), LIMIT_ROR(a, 13), LIMIT_ROR(a, 22));                           \
    LIMIT_WORD(i) += LIMIT_WORD(i + 9) +                                                           \
                     LIMIT_XOR(LIMIT_ROR(LIMIT_WORD(i + 1), 7), LIMIT_ROR(LIMIT_WORD(i + 1), 18),  \
                               LIMIT_WORD(i + 1) >> 3) +                                           \
                     LIMIT_XOR(LIMIT_ROR(LIMIT_WORD(i + 14), 17),                                  \
                               LIMIT_ROR(LIMIT_WORD(i + 14), 19), LIMIT_WORD(i + 14) >> 10)
#define LIMIT_ROUNDS(i)                                                                            \
    LIMIT_ROUND(a, b, c, d, e, f, g, h, i);                                                        \
    LIMIT_ROUND(h, a, b, c, d, e, f, g, i + 1);                                                    \
    LIMIT_ROUND(g, h, a, b, c, d, e, f, i + 2);                                                    \
    LIMIT_ROUND(f, g, h, a, b, c, d, e, i + 3);                                                    \
    LIMIT_ROUND(e, f, g, h, a, b, c, d, i + 4);                                                    \
    LIMIT_ROUND(d, e, f, g, h, a, b, c, i + 5);                                                    \
    LIMIT_ROUND(c, d, e, f, g, h, a, b, i + 6);                                                    \
    LIMIT_ROUND(b, c, d, e, f, g, h, a, i + 7)

/* w[i] = word i of each of the 16 blocks at p, p + stride, ...: a transposition, and big-endian. */
LIMIT_AVX512 void limit_lanes_words(limit_vec w[16], const uint8_t *p, size_t stride)
{
    const __m512i swap = _mm512_broadcast_i32x4(
        _mm_set_epi32(0x0c0d0e0f, 0x08090a0b, 0x04050607, 0x00010203));
    __m512i r[16], s[16];

    for (int i = 0; i < 16; i++)
        r[i] = _mm512_loadu_si512(p + (size_t)i * stride);
    for (int i = 0; i < 16; i += 2) {
        s[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
        s[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
    }
    for (int i = 0; i < 16; i += 4)
        for (int j = 0; j < 2; j++) {
            r[i + 2 * j] = _mm512_unpacklo_epi64(s[i + j], s[i + j + 2]);
            r[i + 2 * j + 1] = _mm512_unpackhi_epi64(s[i + j], s[i + j + 2]);
        }
    for (int i = 0; i < 4; i++) {
        __m512i even = _mm512_shuffle_i32x4(r[i], r[i + 4], 0x88);
        __m512i odd = _mm512_shuffle_i32x4(r[i], r[i + 4], 0xdd);
        __m512i even2 = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0x88);
        __m512i odd2 = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0xdd);
        s[i] = _mm512_shuffle_i32x4(even, even2, 0x88);
        s[i + 4] = _mm512_shuffle_i32x4(odd, odd2, 0x88);
        s[i + 8] = _mm512_shuffle_i32x4(even, even2, 0xdd);
        s[i + 12] = _mm512_shuffle_i32x4(odd, odd2, 0xdd);
    }
    for (int i = 0; i < 16; i++)
        w[i] = (limit_vec)_mm512_shuffle_epi8(s[i], swap);
}

/* The digests of 16 messages of size bytes, a multiple of 64, one behind the other. */
LIMIT_AVX512 void limit_sha256_lanes(const limit_ctx *c, const uint8_t *p, size_t size,
                                     uint8_t *sums)
{
    const uint32_t *k = c->k;
    limit_vec s[8], w[16];

    for (int i = 0; i < 8; i++)
        s[i] = c->start[i] + (limit_vec){ 0 };
    for (size_t at = 0; at <= size; at += 64) {
        limit_vec a = s[0], b = s[1], c = s[2], d = s[3], e = s[4], f = s[5], g = s[6], h = s[7];
        if (at < size) {
            limit_lanes_words(w, p + at, size);
        } else {
            memset(w, 0, sizeof w);
            w[0] += 0x80000000;
            w[14] += (uint32_t)(size >> 29);
            w[15] += (uint32_t)(size << 3);
        }
        LIMIT_ROUNDS(0);
        LIMIT_ROUNDS(8);
        LIMIT_ROUNDS(16);
        LIMIT_ROUNDS(24);
        LIMIT_ROUNDS(32);
        LIMIT_ROUNDS(40);
        LIMIT_ROUNDS(48);
        LIMIT_ROUNDS(56);
        s[0] += a, s[1] += b, s[2] += c, s[3] += d, s[4] += e, s[5] += f, s[6] += g, s[7] += h;
    }
    for (int i = 0; i < 16 * 32; i++)
        sums[i] = (uint8_t)(s[i / 4 % 8][i / 32] >> (24 - 8 * (i % 4)));
}

/* The digest of each chunk, in the fastest way there is here. */
LIMIT_FN int limit_chunks(limit_ctx *c, const uint8_t *p, size_t size, uint8_t *sums)
{
    size_t n;

    for (; size; size -= n, p += n, sums += (n + LIMIT_CHUNK - 1) / LIMIT_CHUNK * 32) {
        n = size < LIMIT_CHUNK ? size : LIMIT_CHUNK;
        if (c->lanes && size >= 16 * LIMIT_CHUNK) {
            n = 16 * LIMIT_CHUNK;
            limit_sha256_lanes(c, p, LIMIT_CHUNK, sums);
        } else if (limit_sha256(c, p, n, sums) != 0) {
            return -1;
        }
    }
    return 0;
}

/* ==== >>files ==== */

LIMIT_FN int limit_memfd(limit_ctx *c, const char *name)
{
    int fd = (int)syscall(SYS_memfd_create, name, LIMIT_MFD_CLOEXEC | LIMIT_MFD_ALLOW_SEALING);

    return fd < 0 ? (int)limit_fail(c, "memfd_create") : fd;
}

LIMIT_FN int limit_seal(limit_ctx *c, int fd)
{
    return fcntl(fd, LIMIT_F_ADD_SEALS, LIMIT_SEALS) != 0 ? (int)limit_fail(c, "F_ADD_SEALS") : 0;
}

LIMIT_FN int limit_write_all(limit_ctx *c, int fd, const uint8_t *p, size_t size)
{
    while (size) {
        ssize_t n = write(fd, p, size);
        if (n <= 0)
            return (int)limit_fail(c, "write");
        p += n;
        size -= (size_t)n;
    }
    return 0;
}

LIMIT_FN char *limit_join(const char *dir, const char *name)
{
    size_t size = strlen(dir) + strlen(name) + 2;
    char *p = (char *)malloc(size);

    if (p)
        snprintf(p, size, "%s/%s", dir, name);
    return p;
}

/* A byte pattern with no zero page and no two equal pages. */
LIMIT_FN void limit_pattern(uint8_t *p, size_t size)
{
    uint64_t x = 0x9e3779b97f4a7c15;

    for (size_t i = 0; i + 8 <= size; i += 8) {
        x = compute_xorshift(x, 1);
        memcpy(p + i, &x, 8);
    }
}

/* A new file that is on the disk. */
LIMIT_FN int limit_write_file(limit_ctx *c, const char *path, const uint8_t *p, size_t size)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600), r;

    if (fd < 0)
        return (int)limit_fail(c, path);
    r = limit_write_all(c, fd, p, size);
    if (r == 0 && fsync(fd) != 0)
        r = (int)limit_fail(c, "fsync");
    close(fd);
    return r;
}

/* Choose the number of bytes that oci_save and oci_load work on: at least 16 KiB, a multiple of the
   page size. Writes dir/limit.blob, a valid guest image of that size, and leaves it in the page
   cache. */
LIMIT_FN int limit_set_bytes(limit_ctx *c, size_t bytes)
{
    uint8_t *p;

    errno = 0;
    c->error[0] = 0;
    if (bytes < LIMIT_PG_COUNT * LIMIT_PAGE || bytes % LIMIT_PAGE || bytes > LIMIT_MEM_SIZE)
        return (int)limit_fail(c, "limit_set_bytes: bad size");
    p = (uint8_t *)realloc(c->blob, bytes);
    if (!p)
        return (int)limit_fail(c, "realloc");
    c->blob = p;
    c->blob_size = bytes;
    limit_pattern(p, bytes);
    memset(p, 0xcc, LIMIT_PAGE);
    limit_build_code(p);
    return limit_write_file(c, c->blob_path, p, bytes);
}

/* The file of load_mapped and load_private, which should be in the page cache. */
LIMIT_FN int limit_set_load(limit_ctx *c, const char *path)
{
    char *copy = strdup(path);
    struct stat st;

    errno = 0;
    c->error[0] = 0;
    free(c->load_path);
    free(c->sums);
    c->load_path = copy;
    c->sums = NULL;
    if (!copy || stat(copy, &st) != 0)
        return (int)limit_fail(c, path);
    c->load_size = (size_t)st.st_size;
    c->sums = (uint8_t *)malloc((c->load_size / LIMIT_CHUNK + 1) * 32);
    return c->sums ? 0 : (int)limit_fail(c, "malloc");
}

/* ==== >>context ==== */

LIMIT_FN uint32_t limit_cpuid(const limit_ctx *c, uint32_t function, uint32_t index, int reg)
{
    for (uint32_t i = 0; i < c->cpuid->nent; i++) {
        const struct kvm_cpuid_entry2 *e = &c->cpuid->entries[i];
        if (e->function == function && e->index == index)
            return reg == 0 ? e->eax : reg == 1 ? e->ebx : reg == 2 ? e->ecx : e->edx;
    }
    return 0;
}

LIMIT_FN int limit_get_cpuid(limit_ctx *c)
{
    memset(c->cpuid, 0, sizeof *c->cpuid);
    c->cpuid->nent = LIMIT_MAX_CPUID;
    if (ioctl(c->kvm, KVM_GET_SUPPORTED_CPUID, c->cpuid) != 0)
        return (int)limit_fail(c, "KVM_GET_SUPPORTED_CPUID");
    c->cr4 = 0x620; /* PAE OSFXSR OSXMMEXCPT */
    if (limit_cpuid(c, 7, 0, 2) & 1u << 2)
        c->cr4 |= 1u << 11; /* UMIP */
    if (limit_cpuid(c, 7, 0, 1) & 1u << 7)
        c->cr4 |= 1u << 20; /* SMEP */
    if (limit_cpuid(c, 7, 0, 1) & 1u << 20)
        c->cr4 |= 1u << 21; /* SMAP */
    c->xcr0 = 0;
    if (limit_cpuid(c, 1, 0, 2) & 1u << 26) {
        c->cr4 |= 1u << 18; /* OSXSAVE */
        c->xcr0 = 1 | (limit_cpuid(c, 0xd, 0, 0) & 0xe6);
    }
    return 0;
}

LIMIT_FN int limit_open_kvm(limit_ctx *c)
{
    const int need = KVM_SYNC_X86_REGS | KVM_SYNC_X86_SREGS;
    int size;

    c->kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    if (c->kvm < 0)
        return (int)limit_fail(c, "open /dev/kvm");
    if ((ioctl(c->kvm, KVM_CHECK_EXTENSION, KVM_CAP_SYNC_REGS) & need) != need)
        return (int)limit_fail(c, "KVM_CAP_SYNC_REGS is missing");
    size = ioctl(c->kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
    c->cpuid = (struct kvm_cpuid2 *)malloc(sizeof *c->cpuid +
                                           LIMIT_MAX_CPUID * sizeof c->cpuid->entries[0]);
    if (size <= 0 || !c->cpuid)
        return (int)limit_fail(c, "KVM_GET_VCPU_MMAP_SIZE");
    c->run_size = (size_t)size;
    return limit_get_cpuid(c);
}

/* The sealed image of all machines here: code, data, message, stack and the window; the rest are
   holes. */
LIMIT_FN int limit_make_image(limit_ctx *c)
{
    const size_t window = (size_t)LIMIT_WINDOW_PAGES * LIMIT_PAGE;
    uint8_t *p = (uint8_t *)malloc(window);
    void *view;
    int bad;

    c->image = limit_memfd(c, "limit-image");
    if (c->image < 0 || !p) {
        free(p);
        return -1;
    }
    limit_pattern(p, window);
    bad = ftruncate(c->image, LIMIT_MEM_SIZE) != 0 ||
          pwrite(c->image, p, window, LIMIT_WINDOW) != (ssize_t)window ||
          pwrite(c->image, c->blob, LIMIT_PG_COUNT * LIMIT_PAGE, 0) != LIMIT_PG_COUNT * LIMIT_PAGE;
    free(p);
    if (bad)
        return (int)limit_fail(c, "write of the image");
    if (limit_seal(c, c->image) != 0)
        return -1;
    view = mmap(NULL, window, PROT_READ, MAP_PRIVATE | MAP_POPULATE, c->image, LIMIT_WINDOW);
    if (view == MAP_FAILED)
        return (int)limit_fail(c, "mmap of the image");
    c->pristine = (const uint8_t *)view;
    return 0;
}

LIMIT_FN void limit_close(limit_ctx *c)
{
    limit_vm_destroy(c, &c->vm);
    if (c->pristine)
        munmap((void *)(uintptr_t)c->pristine, (size_t)LIMIT_WINDOW_PAGES * LIMIT_PAGE);
    if (c->image >= 0)
        close(c->image);
    if (c->kvm >= 0)
        close(c->kvm);
    if (c->blob_path)
        unlink(c->blob_path);
    EVP_MD_CTX_free(c->hash);
    EVP_MD_free(c->sha256);
    free(c->cpuid);
    free(c->samples);
    free(c->blob);
    free(c->blob_path);
    free(c->buffer);
    free(c->load_path);
    free(c->sums);
    free(c->dir);
}

/* What touches no KVM. dir: an existing directory for files; figures with fsync are those of its file system. */
LIMIT_FN int limit_init(limit_ctx *c, const char *dir)
{
    memset(c, 0, sizeof *c);
    c->kvm = c->image = -1;
    c->vm = limit_vm_none();
    c->seed = 1;
    c->dir = limit_join(dir, "");
    c->blob_path = limit_join(dir, "limit.blob");
    c->sha256 = EVP_MD_fetch(NULL, "SHA256", NULL);
    c->hash = EVP_MD_CTX_new();
    c->buffer = (uint8_t *)malloc(LIMIT_BATCH);
    c->lanes = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw");
    limit_constants(c->start, c->k);
    if (!c->dir || !c->blob_path || !c->sha256 || !c->hash || !c->buffer)
        return (int)limit_fail(c, "limit_init");
    return 0;
}

/* Returns 0, or -1 with c->error; then everything is already closed. */
LIMIT_FN int limit_open(limit_ctx *c, const char *dir)
{
    if (limit_init(c, dir) == 0 && limit_open_kvm(c) == 0 && limit_set_bytes(c, 1 << 20) == 0 &&
        limit_make_image(c) == 0 && limit_vm_create(c, &c->vm, c->image) == 0 &&
        limit_vm_check(c, &c->vm) == 0)
        return 0;
    limit_fail(c, "limit_open");
    limit_close(c);
    return -1;
}

/* ==== >>calls ==== */

LIMIT_FN double limit_op_exit(limit_ctx *c)
{
    double t = limit_now();

    limit_set_regs(&c->vm, LIMIT_FN_EXIT, 0, 0, 0);
    if (limit_run(c, &c->vm) != 0)
        return -1.0;
    return limit_now() - t;
}

/* The limit of a guest call: registers written, one KVM_RUN to the guest's OUT. */
LIMIT_FN double limit_exit(limit_ctx *c, int iterations)
{
    return limit_block(c, iterations, 3, limit_op_exit);
}

LIMIT_FN double limit_op_host_call(limit_ctx *c)
{
    double t = limit_now();

    if (limit_run(c, &c->vm) != 0)
        return -1.0;
    return limit_now() - t;
}

/* The limit of a host call from the guest: one OUT, resumed with the registers left alone. */
LIMIT_FN double limit_host_call(limit_ctx *c, int iterations)
{
    double ns;

    if (!limit_begin(c, 1) || limit_op_exit(c) < 0)
        return -1.0;
    c->vm.run->kvm_valid_regs = 0;
    ns = limit_block(c, iterations, 3, limit_op_host_call);
    c->vm.run->kvm_valid_regs = KVM_SYNC_X86_REGS;
    return ns;
}

/* ==== >>restore ==== */

/* The guest writes `word` into the first 8 bytes of each of the window's first pages. */
LIMIT_FN int limit_touch(limit_ctx *c, size_t pages, uint64_t word)
{
    limit_set_regs(&c->vm, LIMIT_FN_TOUCH, LIMIT_MEM_BASE + LIMIT_WINDOW, pages, word);
    return limit_run(c, &c->vm);
}

LIMIT_FN int limit_touch_check(limit_ctx *c, size_t pages, uint64_t word)
{
    const uint8_t *window = c->vm.mem + LIMIT_WINDOW;

    for (size_t i = 0; i < pages * LIMIT_PAGE; i += LIMIT_PAGE)
        if (memcmp(window + i, &word, 8) != 0 ||
            memcmp(window + i + 8, c->pristine + i + 8, LIMIT_PAGE - 8) != 0) {
            errno = 0;
            return (int)limit_fail(c, "a page of the window is wrong");
        }
    return 0;
}

/* memcpy of the dirty pages, then one exit in which the guest dirties them again. */
LIMIT_FN double limit_restore_call(limit_ctx *c, size_t pages, int iterations)
{
    double *s = limit_begin(c, iterations);

    if (!s)
        return -1.0;
    for (int i = -3; i < iterations; i++) {
        double t = limit_now();
        memcpy(c->vm.mem + LIMIT_WINDOW, c->pristine, pages * LIMIT_PAGE);
        if (limit_touch(c, pages, (uint64_t)(i + 4)) != 0)
            return -1.0;
        if (i >= 0)
            s[i] = limit_now() - t;
    }
    if (limit_touch_check(c, pages, (uint64_t)(iterations + 3)) != 0)
        return -1.0;
    return limit_median(s, iterations);
}

/* ==== >>map ==== */

/* Shows memory to the guest at LIMIT_MAP_BASE, in one page of 2 MiB; NULL: takes it away. */
LIMIT_FN int limit_map_show(limit_ctx *c, uint8_t *p)
{
    const uint64_t bits = LIMIT_P | LIMIT_U | LIMIT_A | LIMIT_D | LIMIT_2M | LIMIT_NX;
    struct kvm_userspace_memory_region slot;

    memset(&slot, 0, sizeof slot);
    slot.slot = 2;
    slot.flags = c->map_path ? KVM_MEM_READONLY : 0;
    slot.guest_phys_addr = LIMIT_MAP_BASE;
    slot.memory_size = p ? LIMIT_MAP_SIZE : 0;
    slot.userspace_addr = (uintptr_t)p;
    if (ioctl(c->vm.vm, KVM_SET_USER_MEMORY_REGION, &slot) != 0)
        return (int)limit_fail(c, "KVM_SET_USER_MEMORY_REGION of a map");
    limit_sys_page(c->vm.sys, LIMIT_SYS_PD)[LIMIT_MAP_BASE >> 21] =
        p ? LIMIT_MAP_BASE | bits | (c->map_path ? 0 : LIMIT_W) : 0;
    return 0;
}

/* The guest reads a word in each of the map's first pages. */
LIMIT_FN int limit_map_read(limit_ctx *c, uint8_t *p)
{
    int r = limit_map_show(c, p);

    limit_set_regs(&c->vm, LIMIT_FN_READ, LIMIT_MAP_BASE, c->map_pages, 0);
    if (r == 0)
        r = limit_run(c, &c->vm);
    return limit_map_show(c, NULL) == 0 ? r : -1;
}

LIMIT_FN int limit_map_file(limit_ctx *c)
{
    int fd = open(c->map_path, O_RDONLY | O_CLOEXEC), r;
    void *p = fd < 0 ? MAP_FAILED : mmap(NULL, LIMIT_MAP_SIZE, PROT_READ, MAP_PRIVATE, fd, 0);

    r = p == MAP_FAILED ? (int)limit_fail(c, c->map_path) : limit_map_read(c, (uint8_t *)p);
    if (p != MAP_FAILED)
        munmap(p, LIMIT_MAP_SIZE);
    if (fd >= 0)
        close(fd);
    return r;
}

LIMIT_FN double limit_op_map(limit_ctx *c)
{
    double t = limit_now();
    int r = c->map_path ? limit_map_file(c) : limit_map_read(c, c->map_data);

    return r == 0 ? limit_now() - t : -1.0;
}

/* What the guest adds up. */
LIMIT_FN uint64_t limit_map_sum(const limit_ctx *c)
{
    uint64_t sum = 0, word;

    for (size_t i = 0; i < c->map_pages; i++, sum += word)
        memcpy(&word, c->map_data + i * LIMIT_PAGE, sizeof word);
    return sum;
}

/* Open and mmap of a file in the page cache, or memory that is there; a memory slot for it; one
   entry in which the guest reads a word in each of some pages; and all of that undone. */
LIMIT_FN double limit_map(limit_ctx *c, int iterations)
{
    double ns = limit_block(c, iterations, 3, limit_op_map);

    errno = 0;
    if (ns >= 0 && c->vm.run->s.regs.regs.rax != limit_map_sum(c))
        return limit_fail(c, "the guest read something else in the map");
    return ns;
}

/* ==== >>snapshot ==== */

/* A sealed memfd of every second page of the window; the fd is the snapshot. */
LIMIT_FN int limit_make_snapshot(limit_ctx *c, int pages)
{
    struct iovec iov[64];
    int fd = limit_memfd(c, "limit-snapshot");

    if (fd < 0)
        return -1;
    for (int done = 0; done < pages;) {
        int n = pages - done < 64 ? pages - done : 64;
        for (int i = 0; i < n; i++) {
            iov[i].iov_base = c->vm.mem + LIMIT_WINDOW + (size_t)(done + i) * 2 * LIMIT_PAGE;
            iov[i].iov_len = LIMIT_PAGE;
        }
        if (writev(fd, iov, n) != (ssize_t)n * LIMIT_PAGE) {
            limit_fail(c, "writev");
            close(fd);
            return -1;
        }
        done += n;
    }
    if (limit_seal(c, fd) != 0) {
        close(fd);
        return -1;
    }
    return fd;
}

/* N scattered pages into a sealed memfd, and its close. The guest writes them first, uncounted: the
   thing under test needs that, and caches are left in the same state. */
LIMIT_FN double limit_snapshot(limit_ctx *c, int pages, int iterations)
{
    double *s = limit_begin(c, iterations);

    if (!s)
        return -1.0;
    for (int i = -3; i < iterations; i++) {
        int fd = limit_touch(c, (size_t)pages * 2, (uint64_t)(i + 4)) == 0 ? 0 : -1;
        double t = limit_now();
        if (fd == 0)
            fd = limit_make_snapshot(c, pages);
        if (fd < 0)
            return -1.0;
        close(fd);
        if (i >= 0)
            s[i] = limit_now() - t;
    }
    return limit_median(s, iterations);
}

/* ==== >>spawn ==== */

LIMIT_FN double limit_op_spawn(limit_ctx *c)
{
    limit_vm v = limit_vm_none();
    double t = limit_now(), ns;
    int r = limit_vm_create(c, &v, c->image);

    ns = limit_now() - t;
    if (r == 0)
        r = limit_vm_check(c, &v);
    limit_vm_destroy(c, &v);
    return r == 0 ? ns : -1.0;
}

/* Raw create to the first exit of a new VM on the shared image; the destroy is done, not counted.
 */
LIMIT_FN double limit_spawn(limit_ctx *c, int iterations)
{
    return limit_block(c, iterations, 1, limit_op_spawn);
}

LIMIT_FN double limit_op_destroy(limit_ctx *c)
{
    limit_vm v = limit_vm_none();
    int r = limit_vm_create(c, &v, c->image);
    double t = limit_now();

    limit_vm_destroy(c, &v);
    return r == 0 ? limit_now() - t : -1.0;
}

/* The destroy that limit_spawn leaves out. */
LIMIT_FN double limit_destroy(limit_ctx *c, int iterations)
{
    return limit_block(c, iterations, 1, limit_op_destroy);
}

/* ==== >>oci ==== */

LIMIT_FN int limit_save_file(limit_ctx *c, const char *path)
{
    uint8_t digest[32];
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600), r;

    if (fd < 0)
        return (int)limit_fail(c, path);
    r = limit_write_all(c, fd, c->blob, c->blob_size);
    if (r == 0)
        r = limit_sha256(c, c->blob, c->blob_size, digest);
    if (r == 0 && fsync(fd) != 0)
        r = (int)limit_fail(c, "fsync");
    close(fd);
    return r;
}

LIMIT_FN double limit_op_save(limit_ctx *c)
{
    char *path = limit_join(c->dir, "limit.save");
    double t = limit_now();
    int r = path ? limit_save_file(c, path) : -1;

    t = limit_now() - t;
    if (path)
        unlink(path);
    free(path);
    return r == 0 ? t : -1.0;
}

/* Write of the blob to a new file, SHA-256, fsync of the file. The unlink is not counted. */
LIMIT_FN double limit_oci_save(limit_ctx *c, int iterations)
{
    return limit_block(c, iterations, 1, limit_op_save);
}

/* What a layout must have on its disk at least, in this order: a memory layer, its chunk list, a
   config, a manifest, their names, the new index, its name. */
LIMIT_FN int limit_save_delta(limit_ctx *c, char *const paths[6])
{
    const size_t sizes[] = { c->delta_size, (c->delta_size + LIMIT_CHUNK - 1) / LIMIT_CHUNK * 32,
                             16384, 1024, 1024 };
    uint8_t digest[32];
    int dir = open(c->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC), r;

    r = dir < 0 ? (int)limit_fail(c, c->dir) : limit_chunks(c, c->blob, sizes[0], c->buffer);
    for (int i = 0; r == 0 && i < 5; i++) {
        if (i == 4 && fsync(dir) != 0)
            r = (int)limit_fail(c, "fsync");
        if (r == 0 && i < 4)
            r = limit_sha256(c, i == 1 ? c->buffer : c->blob, sizes[i], digest);
        if (r == 0)
            r = limit_write_file(c, paths[i], i == 1 ? c->buffer : c->blob, sizes[i]);
    }
    if (r == 0 && (rename(paths[4], paths[5]) != 0 || fsync(dir) != 0))
        r = (int)limit_fail(c, "rename");
    if (dir >= 0)
        close(dir);
    return r;
}

LIMIT_FN double limit_op_save_delta(limit_ctx *c)
{
    static const char *const names[] = { "limit.memory",   "limit.chunks", "limit.config",
                                         "limit.manifest", "limit.new",    "limit.index" };
    char *paths[6];
    double t;
    int r = 0;

    for (int i = 0; i < 6; i++)
        if (!(paths[i] = limit_join(c->dir, names[i])))
            r = (int)limit_fail(c, "malloc");
    t = limit_now();
    if (r == 0)
        r = limit_save_delta(c, paths);
    t = limit_now() - t;
    for (int i = 0; i < 6; i++) {
        if (paths[i] && i != 5) /* the index is replaced each time */
            unlink(paths[i]);
        free(paths[i]);
    }
    return r == 0 ? t : -1.0;
}

/* A layer of c->delta_size bytes added to a layout that is there: two SHA-256 of it (whole, chunks),
   write and fsync of it and of three small files, fsync of a directory, write, fsync and rename of
   the index, fsync of its directory. The unlinks are not counted. */
LIMIT_FN double limit_delta_save(limit_ctx *c, int iterations)
{
    char *index = limit_join(c->dir, "limit.index");
    double ns;

    errno = 0;
    if (!index || c->delta_size < LIMIT_PAGE || c->delta_size > c->blob_size)
        ns = limit_fail(c, "limit_delta_save: bad delta_size");
    else
        ns = limit_block(c, iterations, 1, limit_op_save_delta);
    if (index)
        unlink(index);
    free(index);
    return ns;
}

/* Reads the file of limit_set_load from the page cache, hashes its chunks while they are in the
   CPU's, and writes what was hashed to fd, unless that is -1. The fastest way to a verified copy
   here: reading straight into a mapped memfd, or sendfile, costs more for the page faults. */
LIMIT_FN int limit_load_copy(limit_ctx *c, int fd)
{
    int file = open(c->load_path, O_RDONLY | O_CLOEXEC), r;
    size_t at = 0;
    ssize_t n = 1;

    r = file < 0 ? (int)limit_fail(c, c->load_path) : 0;
    while (r == 0 && at < c->load_size && n > 0) {
        n = pread(file, c->buffer, LIMIT_BATCH, (off_t)at);
        if (n > 0)
            r = limit_chunks(c, c->buffer, (size_t)n, c->sums + at / LIMIT_CHUNK * 32);
        if (n > 0 && r == 0 && fd >= 0)
            r = limit_write_all(c, fd, c->buffer, (size_t)n);
        at += n > 0 ? (size_t)n : 0;
    }
    if (file >= 0)
        close(file);
    return r == 0 && at != c->load_size ? (int)limit_fail(c, "the file has changed") : r;
}

/* A sealed memfd of the file, size bytes or as large as the file (0), or -1. */
LIMIT_FN int limit_load_image(limit_ctx *c, off_t size)
{
    int fd = limit_memfd(c, "limit-load"), r;

    if (fd < 0)
        return -1;
    r = limit_load_copy(c, fd);
    if (r == 0 && size && ftruncate(fd, size) != 0)
        r = (int)limit_fail(c, "ftruncate");
    if (r == 0)
        r = limit_seal(c, fd);
    if (r != 0)
        close(fd);
    return r == 0 ? fd : -1;
}

LIMIT_FN double limit_op_load_mapped(limit_ctx *c)
{
    double t = limit_now();

    return limit_load_copy(c, -1) == 0 ? limit_now() - t : -1.0;
}

/* Open, read and chunk digests of the file of limit_set_load, which could be mapped then. */
LIMIT_FN double limit_load_mapped(limit_ctx *c, int iterations)
{
    return limit_block(c, iterations, 1, limit_op_load_mapped);
}

LIMIT_FN double limit_op_load_private(limit_ctx *c)
{
    double t = limit_now();
    int fd = limit_load_image(c, 0);

    if (fd < 0)
        return -1.0;
    t = limit_now() - t;
    close(fd);
    return t;
}

/* The same with a copy into a memfd that is sealed; its close is not counted. */
LIMIT_FN double limit_load_private(limit_ctx *c, int iterations)
{
    return limit_block(c, iterations, 1, limit_op_load_private);
}

LIMIT_FN double limit_op_verify(limit_ctx *c)
{
    uint8_t digest[32];
    double t = limit_now();

    for (size_t at = 0; at + LIMIT_CHUNK <= c->text_size; at += LIMIT_CHUNK)
        if (limit_sha256(c, c->text + at, LIMIT_CHUNK, digest) != 0)
            return -1.0;
    return limit_now() - t;
}

/* What openssl speed does: EVP digests of c->text in messages of 64 KiB, one after the other. */
LIMIT_FN double limit_verify(limit_ctx *c, int iterations)
{
    return limit_block(c, iterations, 1, limit_op_verify);
}

/* For a fresh process with an unused context: from opening /dev/kvm over the blob (in the page cache; read, SHA-256 of each
   64 KiB, sealed memfd) to the first exit of a VM on it. dir holds the blob that limit_set_bytes wrote. */
LIMIT_FN double limit_load_child(limit_ctx *c, const char *dir, size_t bytes)
{
    limit_vm v = limit_vm_none();
    double t;
    int fd;

    /* OpenSSL reads its configuration in limit_init: not counted */
    if (limit_init(c, dir) != 0 || limit_set_load(c, c->blob_path) != 0)
        return -1.0;
    t = limit_now();
    if (limit_open_kvm(c) != 0)
        return -1.0;
    fd = c->load_size == bytes ? limit_load_image(c, LIMIT_MEM_SIZE) : -1;
    if (fd < 0 || limit_vm_create(c, &v, fd) != 0)
        return -1.0;
    return limit_now() - t;
}

/* ==== >>compute ==== */

LIMIT_FN double limit_op_compute(limit_ctx *c)
{
    double t = limit_now();
    uint64_t seed = c->seed, result = compute_run(seed);

    __asm__ volatile("" : "+r"(result) : : "memory");
    t = limit_now() - t;
    errno = 0;
    return result == compute_expected() ? t : limit_fail(c, "compute_run gave a wrong result");
}

/* compute.h on the host. */
LIMIT_FN double limit_compute(limit_ctx *c, int iterations)
{
    return limit_block(c, iterations, 1, limit_op_compute);
}

/* ==== >>include ==== */

/* argv for `$CC -fsyntax-only path`. CC may hold several words; they are split in place at blanks.
 */
LIMIT_FN void limit_cc_args(char *cc, char *path, char *flag, char *argv[16])
{
    int n = 0;

    for (char *word = strtok(cc, " "); word && n < 13; word = strtok(NULL, " "))
        argv[n++] = word;
    argv[n++] = flag;
    argv[n++] = path;
    argv[n] = NULL;
}

/* Nanoseconds from posix_spawn to wait, or -1. */
LIMIT_FN double limit_run_cc(limit_ctx *c, char *path)
{
    extern char **environ;
    const char *cc = getenv("CC");
    char words[256], flag[] = "-fsyntax-only", *argv[16];
    int status = 0;
    pid_t pid;
    double t;

    snprintf(words, sizeof words, "%s", cc && cc[0] ? cc : "cc");
    limit_cc_args(words, path, flag, argv);
    t = limit_now();
    errno = posix_spawnp(&pid, argv[0], NULL, NULL, argv, environ);
    if (errno != 0)
        return limit_fail(c, argv[0]);
    if (waitpid(pid, &status, 0) != pid || status != 0)
        return limit_fail(c, "cc -fsyntax-only");
    return limit_now() - t;
}

LIMIT_FN double limit_op_include(limit_ctx *c)
{
    char *path = limit_join(c->dir, "limit_include.c");
    FILE *f = path ? fopen(path, "w") : NULL;
    double ns = -1.0;

    if (f) {
        fputs("#include <stdbool.h>\n#include <stddef.h>\n#include <stdint.h>\n", f);
        if (c->header)
            fprintf(f, "#include \"%s\"\n", c->header);
        fputs("typedef int limit_nothing;\n", f);
        if (fclose(f) == 0)
            ns = limit_run_cc(c, path);
        unlink(path);
    }
    free(path);
    return ns;
}

/* $CC -fsyntax-only (default cc) of a file with only <stdbool.h> <stddef.h> <stdint.h>. */
LIMIT_FN double limit_include(limit_ctx *c, int iterations)
{
    const char *header = c->header;
    double ns;

    c->header = NULL;
    ns = limit_block(c, iterations, 1, limit_op_include);
    c->header = header;
    return ns;
}

/* The same with c->header included too: an absolute path, or one relative to dir. */
LIMIT_FN double limit_include_header(limit_ctx *c, int iterations)
{
    errno = 0;
    return c->header ? limit_block(c, iterations, 1, limit_op_include)
                     : limit_fail(c, "c->header is not set");
}

#endif

/* fake.h - a hypervisor without a machine, for tests that run anywhere.

   It implements struct hlsnap_hypervisor and nothing else. The guest is a C function: the image (fake_elf) holds the number
   of a fake_program; the fake finds it by walking the host's page tables from the entry's rip, and calls it at every run. A
   program sees guest memory through these tables only (fake_at) and leaves by filling in cpu->exit. fake_runtime is a
   well-behaved one, written against the public ABI: it lists its functions at init and runs them; a function that is a
   plain hlsnap_fn runs to its end, one that is a fake_body may leave the VM and is called again with the next step.

   Every allocation and system call of hlsnap.h counts in `inject`, and the k-th of them can be made to fail. */
#ifndef FAKE_H
#define FAKE_H
#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1
#endif
#include <malloc.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#if defined(__has_include)
#if __has_include(<valgrind/memcheck.h>)
#include <valgrind/memcheck.h>
#endif
#endif
#ifndef VALGRIND_MAKE_MEM_DEFINED
#define VALGRIND_MAKE_MEM_DEFINED(p, n) ((void)(p), (void)(n))
#define RUNNING_ON_VALGRIND 0
#endif

#if defined(__SANITIZE_ADDRESS__)
#define SANITIZED 1            /* ASan maps and unmaps for itself */
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SANITIZED 1
#endif
#endif
#ifndef SANITIZED
#define SANITIZED 0
#endif

/* Counters: several threads may be at it. */
#define TALLY(counter, n) __atomic_fetch_add(&(counter), n, __ATOMIC_RELAXED)

/* ---- injection ---- */

static struct inject {
    long alloc_fail, sys_fail; /* the allocation, the system call that fails: 0 = the next one; -1 = none */
    long allocs, sys_calls;    /* so far */
    long hits;                 /* failures injected */
    long live, maps;           /* blocks not freed, bytes not unmapped */
    int sys_errno;             /* 0 = ENOMEM */
    bool no_scan;              /* a kernel without PAGEMAP_SCAN */
    void (*on_alloc)(void);    /* what happens meanwhile */
    bool old;                  /* a kernel of 5.10: what came later is refused as it refuses it */
    bool held;                 /* a kernel that holds a page of every memfd just then: F_SEAL_WRITE is EBUSY */
    long refused;              /* so often */
    size_t move_most;          /* bytes that process_vm_readv and _writev copy at once; 0 = as the kernel */
    int move_errno;            /* they fail with it */
    long moves;                /* calls of them */
} inject = {-1, -1, 0, 0, 0, 0, 0, 0, false, NULL, false, false, 0, 0, 0, 0};

__attribute__((unused)) static void inject_arm(long alloc_fail, long sys_fail) {
    inject.alloc_fail = alloc_fail;
    inject.sys_fail = sys_fail;
    inject.allocs = inject.sys_calls = inject.hits = 0;
}

/* true when something failed since inject_arm */
__attribute__((unused)) static bool inject_disarm(void) {
    inject.alloc_fail = inject.sys_fail = -1;
    return inject.hits != 0;
}

static void *inject_malloc(size_t n) {
    void *p;
    if (inject.on_alloc) inject.on_alloc();
    if (__atomic_fetch_add(&inject.allocs, 1, __ATOMIC_RELAXED) == inject.alloc_fail) {
        inject.hits++;
        return NULL;
    }
    p = malloc(n);
    __atomic_fetch_add(&inject.live, p != NULL, __ATOMIC_RELAXED);
    return p;
}

static const char *inject_secret; /* blocks that have it when they are freed are counted */
static long inject_left;
static void inject_free(void *p) {
    if (inject_secret && p && memmem(p, malloc_usable_size(p), inject_secret, strlen(inject_secret))) TALLY(inject_left, 1);
    __atomic_fetch_sub(&inject.live, p != NULL, __ATOMIC_RELAXED);
    free(p);
}

static bool inject_trip(void) {
    if (TALLY(inject.sys_calls, 1) != inject.sys_fail) return false;
    TALLY(inject.hits, 1);
    errno = inject.sys_errno ? inject.sys_errno : ENOMEM;
    return true;
}

/* Where `is` holds, a system call that Linux 5.10 does not know so. */
static bool inject_too_new(bool is, int number) {
    if (!inject.old || !is) return false;
    inject.refused++;
    errno = number;
    return true;
}
static bool inject_write_sealed(int fd) {
    const int seals = fd < 0 ? -1 : fcntl(fd, F_GET_SEALS);
    return seals > 0 && seals & F_SEAL_WRITE;
}

static void *inject_mmap(void *at, size_t n, int prot, int flags, int fd, off_t offset) {
    void *p = inject_trip() || inject_too_new(flags & MAP_SHARED && inject_write_sealed(fd), EPERM) /* read-only, too, up to 6.6 */
                  ? MAP_FAILED : mmap(at, n, prot, flags, fd, offset);
    if (p != MAP_FAILED && !(flags & MAP_FIXED)) TALLY(inject.maps, (long)(n + 4095) & ~4095l);
    return p;
}
static int inject_munmap(void *p, size_t n) {
    TALLY(inject.maps, -((long)(n + 4095) & ~4095l));
    return munmap(p, n);
}
static int inject_madvise(void *p, size_t n, int what) {
    return inject_trip() || inject_too_new(what > 21, EINVAL) /* from MADV_POPULATE_READ on */ ? -1 : madvise(p, n, what);
}
static int inject_mprotect(void *p, size_t n, int prot) { return inject_trip() ? -1 : mprotect(p, n, prot); }
static int inject_munlock(void *p, size_t n) { return inject_trip() ? -1 : munlock(p, n); }
static int inject_fcntl(int fd, int cmd, int arg) {
    if (inject_trip()) return -1;
    if (inject.held && cmd == F_ADD_SEALS && arg & F_SEAL_WRITE) return inject.refused++, errno = EBUSY, -1;
    return fcntl(fd, cmd, arg);
}
static int inject_open(const char *path, int flags) { return inject_trip() ? -1 : open(path, flags); }
static ssize_t inject_pread(int fd, void *to, size_t n, off_t at) { return inject_trip() ? -1 : pread(fd, to, n, at); }
static ssize_t inject_pwrite(int fd, const void *p, size_t n, off_t at) {
    return inject_trip() ? -1 : pwrite(fd, p, n, at);
}
static long inject_syscall(long number, ...) {
    long a[6], i;
    va_list ap;
    va_start(ap, number);
    for (i = 0; i < 6; i++) a[i] = va_arg(ap, long);
    va_end(ap);
    if (inject.no_scan && number == SYS_ioctl) return errno = ENOTTY, -1;
    if (inject_too_new(number == SYS_ioctl && a[1] == 0xc0606610l, ENOTTY) /* PAGEMAP_SCAN */ ||
        inject_too_new(number == SYS_memfd_create && a[1] & ~7l, EINVAL) || /* more than CLOEXEC, ALLOW_SEALING, HUGETLB */
        inject_too_new(number > 440, ENOSYS)) return -1;                    /* behind process_madvise */
    if (number == SYS_process_vm_readv || number == SYS_process_vm_writev) {
        struct iovec mine = *(const struct iovec *)a[1], theirs = *(const struct iovec *)a[3];
        TALLY(inject.moves, 1);
        if (inject.move_errno) return errno = inject.move_errno, -1;
        if (inject.move_most && mine.iov_len > inject.move_most) mine.iov_len = theirs.iov_len = inject.move_most;
        return inject_trip() ? -1 : syscall(number, a[0], &mine, 1l, &theirs, 1l, 0l);
    }
    i = inject_trip() ? -1 : syscall(number, a[0], a[1], a[2], a[3], a[4], a[5]);
    if (number == SYS_mremap && i == -1 && errno == ENOMEM) munmap((void *)a[4], (size_t)a[2]); /* as Linux may have by then */
    if (number == SYS_mremap && i != -1) TALLY(inject.maps, -((a[1] + 4095) & ~4095l)); /* over what there is */
    if (number == SYS_ioctl && i > 0) { /* PAGEMAP_SCAN, which valgrind does not know, wrote i rows of 24 bytes to arg->vec */
        const uint64_t *arg = (const uint64_t *)(uintptr_t)a[2];
        VALGRIND_MAKE_MEM_DEFINED((void *)(uintptr_t)arg[5], (size_t)i * 24);
    }
    return i;
}

#define HLSNAP_MALLOC(n) inject_malloc(n)
#define HLSNAP_FREE(p) inject_free(p)
#define mmap(a, n, p, f, d, o) inject_mmap(a, n, p, f, d, o)
#define munmap(p, n) inject_munmap(p, n)
#define madvise(p, n, w) inject_madvise(p, n, w)
#define mprotect(p, n, w) inject_mprotect(p, n, w)
#define munlock(p, n) inject_munlock(p, n)
#define fcntl(d, c, a) inject_fcntl(d, c, a)
#define open(p, f) inject_open(p, f)
#define pread(d, t, n, o) inject_pread(d, t, n, o)
#define pwrite(d, p, n, o) inject_pwrite(d, p, n, o)
#define syscall(...) inject_syscall(__VA_ARGS__, 0L, 0L, 0L, 0L, 0L, 0L)
#include "hlsnap.h"
#undef mmap
#undef munmap
#undef madvise
#undef mprotect
#undef munlock
#undef fcntl
#undef open
#undef pread
#undef pwrite
#undef syscall

/* ---- the hypervisor ---- */

enum { FAKE_CREATE, FAKE_MAP, FAKE_BEGIN, FAKE_RUN, FAKE_TOUCH, FAKE_NUM_OPS };

typedef struct hlsnap__shell fake_cpu;
typedef void (*fake_code)(fake_cpu *cpu);
typedef bool (*fake_body)(fake_cpu *cpu); /* true: the result stands; false: left the VM, call again with step + 1 */

typedef struct fake_function { const char *name, *signature; hlsnap_fn fn; fake_body body; uint32_t number; } fake_function;

typedef struct fake_program {
    fake_code code;
    const fake_function *exports; uint32_t num_exports;
    const hlsnap_function *imports; uint32_t num_imports;
} fake_program;

typedef struct fake {
    hlsnap_hypervisor ops;     /* first: ops and object are one */
    const fake_program *programs;
    uint32_t num_programs;
    long fail[FAKE_NUM_OPS];   /* that call of the operation fails, 1 = the next; 0 = none */
    long calls[FAKE_NUM_OPS];
    long shells;               /* alive */
    long forked;               /* destroyed in a child */
    long kicks;                /* cancels seen */
    int32_t spinning;          /* atomic: a guest loops until it is kicked */
    uint32_t level;            /* hlsnap_cpu of the shell that ran last */
    uint64_t touched;          /* pages, the last time */
    long bad;                  /* broken promises of the host: must stay 0 */
    uint64_t room;             /* GVA of memory that the guest has for large messages; 0 = none */
    int32_t locked;            /* atomic: the guest runs; a test's thread takes it to play a guest that runs on */
    void (*hook)(fake_cpu *cpu, hlsnap_abi_mailbox *m); /* what a hostile guest does to its mailbox before it leaves */
} fake;

struct hlsnap__shell {         /* one VM with one vCPU */
    fake *hv;
    uint8_t *sys, *mem;        /* supervisor area, guest memory */
    uint64_t mem_size;
    hlsnap__slot maps[HLSNAP_MAX_MAPS + 1]; /* by number; size 0: not set */
    uint32_t level;            /* hlsnap_cpu that it shows */
    bool begun, cancellable, started;
    int32_t cancelled;         /* atomic */
    uint64_t deadlines[HLSNAP__CLOCKS];
    hlsnap__entry entry;
    hlsnap__exit *exit;        /* how this run ends */
    bool resumed;              /* this run goes on where the last one left */
    uint64_t scratch;          /* a register: must not survive a fresh entry */
    const fake_program *program;
    uint32_t in, out, used, step, function, num_args; /* the export in progress: offsets of its call and its result */
    hlsnap_value args[HLSNAP_MAX_ARGS];
};

static bool fake_fails(fake *hv, int op) {
    TALLY(hv->calls[op], 1);
    return hv->fail[op] && --hv->fail[op] == 0;
}

static hlsnap_result fake_refuse(hlsnap_error *err) { return hlsnap__fail(err, HLSNAP_ERR_HYPERVISOR, EIO, "told to fail"); }

static hlsnap_result fake_create(const hlsnap_hypervisor *ops, int cancel_signal, uint32_t cpu, fake_cpu **out, hlsnap_error *err) {
    fake *hv = (fake *)hlsnap__unconst(ops);
    TALLY(hv->bad, cancel_signal != SIGURG && cancel_signal < SIGRTMIN);
    if (fake_fails(hv, FAKE_CREATE)) return fake_refuse(err);
    *out = (fake_cpu *)calloc(1, sizeof(**out));
    (*out)->hv = hv;
    (*out)->level = cpu;
    TALLY(hv->shells, 1);
    return HLSNAP_OK;
}

static void fake_destroy(fake_cpu *cpu, bool forked) {
    TALLY(cpu->hv->bad, cpu->begun);
    TALLY(cpu->hv->forked, forked);
    TALLY(cpu->hv->shells, -1);
    free(cpu);
}

/* A slot for a map: where no other is, of whole pages, and beside the window. */
static void fake_map_check(fake_cpu *cpu, const hlsnap__slot *slot) {
    uint32_t i;
    TALLY(cpu->hv->bad, slot->number > HLSNAP_MAX_MAPS || !cpu->sys);
    TALLY(cpu->hv->bad, slot->size && slot->gpa < HLSNAP__MEM_GPA + cpu->mem_size + 4096);
    for (i = 1; i <= HLSNAP_MAX_MAPS; i++)
        TALLY(cpu->hv->bad, slot->size && cpu->maps[i].size && slot->gpa < cpu->maps[i].gpa + cpu->maps[i].size &&
                                cpu->maps[i].gpa < slot->gpa + slot->size);
    TALLY(cpu->hv->bad, !slot->size == !cpu->maps[slot->number].size); /* set when it is not, taken away when it is */
}

static hlsnap_result fake_map(fake_cpu *cpu, const hlsnap__slot *slot, hlsnap_error *err) {
    TALLY(cpu->hv->bad, slot->size % 4096 || !slot->hva != !slot->size);
    if (slot->number) fake_map_check(cpu, slot);
    else TALLY(cpu->hv->bad, cpu->begun || !cpu->sys == !slot->size || slot->gpa != HLSNAP__SYS_GPA || /* taken away before it is set again */
                                 (slot->size && slot->size <= HLSNAP__SYS_SIZE));
    if (fake_fails(cpu->hv, FAKE_MAP)) return fake_refuse(err);
    if (slot->number) {
        cpu->maps[slot->number] = *slot;
        return HLSNAP_OK;
    }
    cpu->sys = (uint8_t *)slot->hva;
    cpu->mem = slot->hva ? cpu->sys + HLSNAP__SYS_SIZE : NULL;
    cpu->mem_size = slot->hva ? slot->size - HLSNAP__SYS_SIZE : 0;
    return HLSNAP_OK;
}

static hlsnap_result fake_begin(fake_cpu *cpu, const uint64_t deadlines[HLSNAP__CLOCKS], bool cancellable, hlsnap_error *err) {
    TALLY(cpu->hv->bad, cpu->begun && (!cancellable || memcmp(deadlines, cpu->deadlines, sizeof(cpu->deadlines)))); /* only to become cancellable */
    if (fake_fails(cpu->hv, FAKE_BEGIN)) return fake_refuse(err);
    if (!cpu->begun) __atomic_store_n(&cpu->cancelled, 0, __ATOMIC_RELEASE);
    cpu->begun = true;
    cpu->cancellable = cancellable;
    memcpy(cpu->deadlines, deadlines, sizeof(cpu->deadlines));
    return HLSNAP_OK;
}

static hlsnap_result fake_cpu_check(fake_cpu *cpu, hlsnap_error *err) {
    (void)err;
    TALLY(cpu->hv->bad, !cpu->level || cpu->level > HLSNAP_CPU_V4 || !cpu->mem || cpu->begun);
    return HLSNAP_OK;
}

static void fake_end(fake_cpu *cpu) {
    TALLY(cpu->hv->bad, !cpu->begun);
    cpu->begun = false;
}

static void fake_cancel(fake_cpu *cpu) {
    TALLY(cpu->hv->bad, !cpu->begun || !cpu->cancellable);
    cpu->hv->kicks++;
    __atomic_store_n(&cpu->cancelled, 1, __ATOMIC_RELEASE);
}

static bool fake_kicked(fake_cpu *cpu) {
    return __atomic_load_n(&cpu->cancelled, __ATOMIC_ACQUIRE) ||
           hlsnap__overdue(cpu->deadlines) != HLSNAP__CLOCKS;
}

/* The page of gva as the host's tables show it to user code, or NULL; need: bits that every entry must have. */
static uint8_t *fake_page(const fake_cpu *cpu, uint64_t gva, uint64_t need, bool execute) {
    uint64_t table = HLSNAP__SYS_PHYS(HLSNAP__SYS_PAGING), entry, size, gpa;
    int level = 3;
    need |= HLSNAP__PTE_P | HLSNAP__PTE_U;
    for (;; level--) {
        entry = hlsnap__get64(cpu->sys + (table - HLSNAP__SYS_GPA) + (gva >> (12 + 9 * level) & 511) * 8);
        if ((entry & need) != need || (execute && entry & HLSNAP__PTE_NX)) return NULL;
        if (!level || entry & HLSNAP__PTE_PS) break;
        table = entry & 0x000ffffffffff000ull;
    }
    size = 1ull << (12 + 9 * level);
    gpa = (entry & 0x000ffffffffff000ull & ~(size - 1)) | (gva & (size - 1) & ~0xfffull);
    if (gpa < HLSNAP__MEM_GPA) return NULL;
    if (gpa - HLSNAP__MEM_GPA < cpu->mem_size) return cpu->mem + (gpa - HLSNAP__MEM_GPA);
    for (level = 1; level <= HLSNAP_MAX_MAPS; level++) {
        const hlsnap__slot *slot = &cpu->maps[level];
        if (gpa - slot->gpa < slot->size && !(slot->readonly && need & HLSNAP__PTE_W)) return (uint8_t *)slot->hva + (gpa - slot->gpa);
    }
    return NULL;
}

/* Pages that are to be known: they can be read, by user code, between calls. */
static void fake_touch(fake_cpu *cpu, const hlsnap__entry *entry, const hlsnap__span *spans, uint32_t num, hlsnap__exit *out) {
    uint64_t at;
    uint32_t i;
    memset(out, 0, sizeof(*out));
    TALLY(cpu->hv->bad, cpu->begun || !cpu->mem || !num || !entry->fresh || !fake_page(cpu, entry->rip & ~0xfffull, 0, true));
    cpu->hv->touched = 0;
    for (i = 0; i < num; i++) {
        TALLY(cpu->hv->bad, spans[i].from % 4096 || spans[i].to % 4096 || spans[i].from >= spans[i].to);
        for (at = spans[i].from; at < spans[i].to; at += 4096, cpu->hv->touched++)
            TALLY(cpu->hv->bad, at != HLSNAP__SYS_AT(HLSNAP__SYS_XSAVE) && !fake_page(cpu, at, spans[i].write ? HLSNAP__PTE_W : 0, false));
    }
    out->kind = HLSNAP__EXIT_RETURN;
    if (!fake_fails(cpu->hv, FAKE_TOUCH)) return;
    out->kind = HLSNAP__EXIT_DEAD;
    out->dead = true;
    out->os_errno = EFAULT;
    snprintf(out->what, sizeof(out->what), "told to die");
}

/* n bytes of guest memory that the guest may read (and write), or NULL. */
static uint8_t *fake_at(const fake_cpu *cpu, uint64_t gva, size_t n, bool write) {
    uint8_t *first = fake_page(cpu, gva, write ? HLSNAP__PTE_W : 0, false);
    uint64_t at;
    for (at = (gva & ~0xfffull) + 4096; first && at < gva + n; at += 4096)
        if (fake_page(cpu, at, write ? HLSNAP__PTE_W : 0, false) != first + (at - (gva & ~0xfffull))) return NULL;
    return first ? first + (gva & 0xfff) : NULL;
}

static hlsnap_abi_mailbox *fake_mailbox(const fake_cpu *cpu) {
    return (hlsnap_abi_mailbox *)(void *)fake_at(cpu, cpu->entry.rdi, sizeof(hlsnap_abi_mailbox), true);
}

static const hlsnap_abi_identity *fake_identity(const fake_cpu *cpu) {
    return (const hlsnap_abi_identity *)(const void *)fake_at(cpu, cpu->entry.fs_base + HLSNAP_ABI_IDENTITY_OFFSET,
                                                              sizeof(hlsnap_abi_identity), false);
}

static void fake_leave(fake_cpu *cpu, hlsnap__exit_kind kind, const char *what) {
    cpu->exit->kind = kind;
    cpu->exit->dead = kind == HLSNAP__EXIT_DEAD;
    snprintf(cpu->exit->what, sizeof(cpu->exit->what), "%s", what);
}

static void fake_lock(fake *hv) {
    while (__atomic_exchange_n(&hv->locked, 1, __ATOMIC_ACQUIRE)) sched_yield();
}

static void fake_run(fake_cpu *cpu, const hlsnap__entry *entry, hlsnap__exit *out) {
    fake *hv = cpu->hv;
    const uint8_t *text;
    uint32_t number = UINT32_MAX;
    cpu->exit = out;
    __atomic_store_n(&hv->level, cpu->level, __ATOMIC_RELAXED);
    cpu->resumed = !entry && cpu->started;
    TALLY(hv->bad, !cpu->begun || !cpu->mem || (!entry && !cpu->started));
    if (entry) {
        cpu->entry = *entry;
        cpu->started = false;
        if (entry->fresh) cpu->scratch = 0;
        TALLY(hv->bad, entry->rsp % 16 != 8 || !fake_at(cpu, entry->rsp - 64, 72, true) || !fake_mailbox(cpu) ||
                   !fake_identity(cpu) || fake_at(cpu, entry->fs_base, 8, true) ||
                   fake_identity(cpu)->mailbox != entry->rdi || fake_mailbox(cpu)->magic != HLSNAP_ABI_MAGIC);
    }
    fake_leave(cpu, HLSNAP__EXIT_DEAD, "told to die");
    if (fake_fails(hv, FAKE_RUN)) return;
    cpu->started = true;
    fake_leave(cpu, HLSNAP__EXIT_KICKED, "");
    if (fake_kicked(cpu)) return;
    text = fake_page(cpu, cpu->entry.rip & ~0xfffull, 0, true);
    if (text && memcmp(text, "fake guest", 10) == 0) memcpy(&number, text + 12, sizeof(number));
    TALLY(hv->bad, number >= hv->num_programs);
    fake_leave(cpu, HLSNAP__EXIT_DEAD, "no program");
    if (number >= hv->num_programs) return;
    cpu->program = &hv->programs[number];
    fake_lock(hv);
    cpu->program->code(cpu);
    __atomic_store_n(&hv->locked, 0, __ATOMIC_RELEASE);
}

HLSNAP__UNUSED static void fake_init(fake *hv, const fake_program *programs, uint32_t num) {
    memset(hv, 0, sizeof(*hv));
    hv->ops.name = "fake";
    hv->ops.shell_create = fake_create;
    hv->ops.shell_destroy = fake_destroy;
    hv->ops.map = fake_map;
    hv->ops.begin = fake_begin;
    hv->ops.end = fake_end;
    hv->ops.run = fake_run;
    hv->ops.touch = fake_touch;
    hv->ops.cancel = fake_cancel;
    hv->ops.cpu_check = fake_cpu_check;
    hv->programs = programs;
    hv->num_programs = num;
}

/* ---- messages, written down a second time: what hlsnap.h encodes must read the same here ---- */

static uint32_t fake_encode(uint8_t *to, uint32_t function, uint32_t status, const hlsnap_value *v, uint32_t num) {
    hlsnap_abi_message head = {0, function, status, num};
    uint32_t i, at = (uint32_t)(sizeof(head) + num * sizeof(hlsnap_abi_value));
    for (i = 0; i < num; i++) {
        hlsnap_abi_value row = {(uint32_t)v[i].type, (uint32_t)v[i].size, v[i].as.u64};
        if (v[i].type == HLSNAP_BOOL) row.bits = v[i].as.b;
        if (v[i].type == HLSNAP_I32 || v[i].type == HLSNAP_U32 || v[i].type == HLSNAP_F32) row.bits = v[i].as.u32;
        if (v[i].str || v[i].bytes) {
            const uint32_t padded = (row.size + (v[i].str != NULL) + 7) & ~7u;
            memset(to + at, 0, padded);
            if (row.size) memcpy(to + at, v[i].str ? (const void *)v[i].str : v[i].bytes, row.size);
            row.bits = at;
            at += padded;
        }
        memcpy(to + sizeof(head) + i * sizeof(row), &row, sizeof(row));
    }
    head.size = at;
    memcpy(to, &head, sizeof(head));
    return at;
}

/* Reads a message of the host in `room` bytes; false when it is not what docs/abi.md promises to a guest. */
static bool fake_decode(const uint8_t *m, size_t room, hlsnap_abi_message *head, hlsnap_value *v) {
    uint32_t i;
    memcpy(head, m, sizeof(*head));
    if (head->size % 8 || head->size > room || head->num_values > HLSNAP_MAX_ARGS) return false;
    for (i = 0; i < head->num_values; i++) {
        hlsnap_abi_value row;
        memcpy(&row, m + sizeof(*head) + i * sizeof(row), sizeof(row));
        memset(&v[i], 0, sizeof(v[i]));
        v[i].type = (hlsnap_type)row.type;
        v[i].size = row.size;
        v[i].as.u64 = row.bits;
        if (row.type < HLSNAP_STR) continue;
        if (row.bits % 8 || row.bits > head->size || row.size + (row.type == HLSNAP_STR) > head->size - row.bits) return false;
        v[i].as.u64 = 0;
        if (row.type == HLSNAP_BYTES) v[i].bytes = m + row.bits;
        else v[i].str = (const char *)m + row.bits;
        if (v[i].str && strnlen(v[i].str, row.size + 1u) != row.size) return false;
    }
    return true;
}

/* ---- a well-behaved guest runtime ---- */

static uint8_t *fake_box(const fake_cpu *cpu, uint32_t offset) {
    return fake_at(cpu, cpu->entry.rdi, 8, true) + offset; /* the mailbox is contiguous: it is one region */
}

/* Reads the host's message at that offset of the mailbox. */
static bool fake_message(const fake_cpu *cpu, uint32_t offset, hlsnap_abi_message *head, hlsnap_value *v) {
    const uint64_t size = fake_identity(cpu)->mailbox_size;
    if (offset % 8 || offset > size - sizeof(*head)) return false;
    return fake_decode(fake_box(cpu, offset), size - offset, head, v);
}

/* Gives the export's result: one value, none (VOID), or a failure. */
HLSNAP__UNUSED static bool fake_return(fake_cpu *cpu, hlsnap_value v) {
    cpu->used = fake_encode(fake_box(cpu, cpu->out), cpu->function, HLSNAP_ABI_STATUS_OK, &v, v.type != HLSNAP_VOID);
    return true;
}
HLSNAP__UNUSED static bool fake_return_status(fake_cpu *cpu, uint32_t status, int32_t code, const char *text) {
    hlsnap_value v[2];
    v[0] = hlsnap_i32(code);
    v[1] = hlsnap_str(text);
    cpu->used = fake_encode(fake_box(cpu, cpu->out), cpu->function, status, v, 2);
    return true;
}

/* Leaves with a request behind the results so far. */
HLSNAP__UNUSED static bool fake_request(fake_cpu *cpu, uint32_t function, const hlsnap_value *v, uint32_t num) {
    fake_encode(fake_box(cpu, cpu->out), function, HLSNAP_ABI_STATUS_OK, v, num);
    fake_mailbox(cpu)->request = cpu->out;
    fake_leave(cpu, HLSNAP__EXIT_CALL, "");
    return false;
}

HLSNAP__UNUSED static bool fake_fault(fake_cpu *cpu, uint32_t vector, uint64_t rip, uint64_t cr2, uint32_t error_code) {
    fake_leave(cpu, HLSNAP__EXIT_FAULT, "");
    cpu->exit->vector = vector;
    cpu->exit->error_code = error_code;
    cpu->exit->rip = rip;
    cpu->exit->cr2 = cr2;
    return false;
}

/* Exports and imports for the host, as OP_INIT wants them. */
static void fake_list(fake_cpu *cpu, hlsnap_abi_mailbox *m) {
    static hlsnap_value v[4 * HLSNAP_MAX_FUNCTIONS + 8];
    const fake_program *p = cpu->program;
    uint32_t i, n = 0;
    for (i = 0; i < p->num_exports; i++) {
        v[n++] = hlsnap_str(p->exports[i].name);
        v[n++] = hlsnap_str(p->exports[i].signature);
    }
    for (i = 0; i < p->num_imports; i++) {
        v[n++] = hlsnap_str(p->imports[i].name);
        v[n++] = hlsnap_str(p->imports[i].signature);
    }
    fake_encode((uint8_t *)m + m->out_offset, 0, HLSNAP_ABI_STATUS_OK, v, n);
    m->guest_abi = HLSNAP_ABI_VERSION;
    m->num_exports = p->num_exports;
    m->num_done = 1;
}

static void fake_native(fake_cpu *cpu, const fake_function *f, const hlsnap_abi_mailbox *m) {
    hlsnap_call call;
    hlsnap__signature sig;
    hlsnap__signature_parse(&sig, f->signature, strlen(f->signature));
    memset(&call, 0, sizeof(call));
    call.args = cpu->args;
    call.signature = &sig;
    call.function = cpu->function;
    call.out = fake_box(cpu, cpu->out);
    call.out_size = m->out_offset + m->out_size - HLSNAP__RESERVE_OUT - cpu->out;
    hlsnap__call_run(&call, f->fn, cpu);
    cpu->used = (uint32_t)call.used;
}

/* A call's message: in the mailbox, or where the guest was asked for room. */
static bool fake_call(fake_cpu *cpu, const hlsnap_abi_mailbox *m, hlsnap_abi_message *head) {
    const uint8_t *at = m->large ? fake_at(cpu, m->large, sizeof(*head), false) : NULL;
    if (!m->large) return fake_message(cpu, cpu->in, head, cpu->args);
    memcpy(head, at, sizeof(*head));
    return fake_decode(fake_at(cpu, m->large, head->size, false), head->size, head, cpu->args);
}

static void fake_calls(fake_cpu *cpu, hlsnap_abi_mailbox *m) {
    if (m->op == HLSNAP_ABI_OP_ROOM) m->room_at = cpu->hv->room;
    if (!cpu->resumed) {
        m->num_done = cpu->step = 0;
        cpu->in = m->in_offset;
        cpu->out = m->out_offset;
    } else {
        cpu->step++;
    }
    while (m->num_done < m->num_calls) {
        const fake_function *f;
        hlsnap_abi_message head, result;
        const bool ok = fake_call(cpu, m, &head) && head.function < cpu->program->num_exports;
        TALLY(cpu->hv->bad, !ok);
        fake_leave(cpu, HLSNAP__EXIT_PROTOCOL, "a malformed call");
        if (!ok) return;
        f = &cpu->program->exports[head.function];
        cpu->function = head.function;
        cpu->num_args = head.num_values;
        if (f->fn) fake_native(cpu, f, m);
        else if (!f->body(cpu)) return;
        memcpy(&result, fake_box(cpu, cpu->out), sizeof(result));
        cpu->in += head.size;
        cpu->out += cpu->used;
        cpu->step = 0;
        m->num_done++;
        if (result.status != HLSNAP_ABI_STATUS_OK) break;
    }
    fake_leave(cpu, HLSNAP__EXIT_RETURN, "");
}

HLSNAP__UNUSED static void fake_runtime(fake_cpu *cpu) {
    hlsnap_abi_mailbox *m = fake_mailbox(cpu);
    fake_leave(cpu, HLSNAP__EXIT_RETURN, "");
    if (m->op == HLSNAP_ABI_OP_INIT) fake_list(cpu, m);
    else fake_calls(cpu, m);
    if (cpu->hv->hook) cpu->hv->hook(cpu, m);
}

/* ---- images ---- */

#define FAKE_IMAGES 8
#define FAKE_TEXT 0x400000ull  /* one page */
#define FAKE_DATA 0x401000ull  /* right behind: FAKE_DATA_PAGES pages, then one that is zero */
#define FAKE_DATA_PAGES 3u
#define FAKE_IMAGE_SIZE ((2 + FAKE_DATA_PAGES) * 4096u)

typedef struct fake_note { uint32_t name_size, desc_size, type; char name[4]; uint32_t id; } fake_note;

/* A static executable: header page, text with the program's number, data of a pattern. */
static const uint8_t *fake_elf(uint32_t program) {
    static uint8_t images[FAKE_IMAGES][FAKE_IMAGE_SIZE];
    static const fake_note note = {4, 4, 3, "GNU", 0};
    static const char magic[12] = "fake guest ";
    uint8_t *image = images[program % FAKE_IMAGES];
    Elf64_Ehdr h;
    Elf64_Phdr p[3];
    uint32_t i;
    memset(&h, 0, sizeof(h));
    memset(p, 0, sizeof(p));
    memcpy(h.e_ident, ELFMAG, SELFMAG);
    h.e_ident[EI_CLASS] = ELFCLASS64;
    h.e_ident[EI_DATA] = ELFDATA2LSB;
    h.e_type = ET_EXEC;
    h.e_machine = EM_X86_64;
    h.e_entry = FAKE_TEXT;
    h.e_phoff = sizeof(h);
    h.e_phentsize = sizeof(p[0]);
    h.e_phnum = 3;
    p[0].p_type = p[1].p_type = PT_LOAD;
    p[0].p_flags = PF_R | PF_X;
    p[0].p_offset = p[0].p_filesz = p[0].p_memsz = 4096;
    p[0].p_vaddr = FAKE_TEXT;
    p[1].p_flags = PF_R | PF_W;
    p[1].p_offset = 8192;
    p[1].p_vaddr = FAKE_DATA;
    p[1].p_filesz = FAKE_DATA_PAGES * 4096;
    p[1].p_memsz = p[1].p_filesz + 4096;
    p[2].p_type = PT_NOTE;
    p[2].p_offset = 1024;
    p[2].p_filesz = sizeof(note);
    memcpy(image, &h, sizeof(h));
    memcpy(image + sizeof(h), p, sizeof(p));
    memcpy(image + 1024, &note, sizeof(note));
    memcpy(image + 1024 + offsetof(fake_note, id), &program, sizeof(program));
    memcpy(image + 4096, magic, sizeof(magic));
    memcpy(image + 4096 + 12, &program, sizeof(program));
    for (i = 0; i < FAKE_DATA_PAGES * 4096; i++) image[8192 + i] = (uint8_t)(i * 7 + i / 4096 + program);
    return image;
}

HLSNAP__UNUSED static hlsnap_prefault fake_prefault; /* of the guests to come */
HLSNAP__UNUSED static hlsnap_guest_desc fake_guest(uint32_t program, uint64_t heap_pages) {
    hlsnap_guest_desc d = HLSNAP_ZERO;
    d.data = fake_elf(program);
    d.data_size = FAKE_IMAGE_SIZE;
    d.heap_size = heap_pages * 4096;
    d.prefault = fake_prefault;
    return d;
}
#endif

/* guest_kvm.c - the guest of test_kvm.c.
   cc: cc -O2 -DHLSNAP_GUEST -ffreestanding -nostdlib -static -I.. guest_kvm.c -o guest_kvm.elf
   With system calls: the same with -DGUEST_SYSCALL, guest_kvm_syscall.elf.
   As a Linux program: musl-gcc -O2 -static -DHLSNAP_GUEST_LIBC -I.. guest_kvm.c -o guest_kvm_libc.elf
   The C++ one: c++ -O2 -DHLSNAP_GUEST -ffreestanding -nostdlib -static -fno-exceptions -fno-rtti -I.. -x c++ guest_kvm.c -o guest_kvm_cpp.elf */
#define HLSNAP_IMPLEMENTATION
#include "hlsnap.h"
#include "guest_kvm.h"
#ifdef HLSNAP_GUEST_LIBC
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#define PAGES_ALLOC(n) aligned_alloc(4096, n)
#else
#define PAGES_ALLOC(n) hlsnap__rt_aligned_alloc(4096, n)
#endif

#ifdef __cplusplus
#define C_NAME extern "C"
#else
#define C_NAME
#endif
#define ASM_NAME(name) __asm__(name) __attribute__((used, aligned(64)))
#define FN(name) static hlsnap_result name(hlsnap_call *call, void *user)
#define ARG(i) hlsnap_call_arg(call, i).as
#define UNUSED (void)user

/* ---- state of every kind ---- */

static uint64_t counter = 7;           /* .data */
static uint8_t bss_pages[8 * 4096];    /* .bss */
static const char rodata_text[64] = "read-only";
#ifdef GUEST_SYSCALL /* thread storage is the libc's where guests make system calls, and here is none */
#define PER_THREAD
#else
#define PER_THREAD __thread
#endif
static PER_THREAD uint64_t tls_value = 41;
static PER_THREAD uint64_t tls_zero;
static uint64_t constructed;
static volatile uint64_t sink;

#ifdef __cplusplus
struct Constructed { uint64_t v; explicit Constructed(uint64_t x) : v(x) { constructed = x; } };
static Constructed object(hlsnap_rt_malloc(1) ? 1234 : 1); /* the heap must be there before constructors run */
#else
__attribute__((constructor)) static void construct(void) { constructed = 1234; }
#endif

/* ---- the probe: an entry point that stores every register before compiled code runs ---- */

static probe_dump dump ASM_NAME("dump");
static uint8_t probe_stack[64] ASM_NAME("probe_stack");
static volatile uint8_t probe_xsave ASM_NAME("probe_xsave");

static uint32_t cpuid(uint32_t leaf, uint32_t sub, int reg) {
    uint32_t r[4];
    __asm__ volatile("cpuid" : "=a"(r[0]), "=b"(r[1]), "=c"(r[2]), "=d"(r[3]) : "a"(leaf), "c"(sub));
    return r[reg];
}
static uint64_t xcr0(void) {
    uint32_t a = 0, d = 0;
    if (!(cpuid(1, 0, 2) >> 27 & 1)) return 0;
    __asm__ volatile("xgetbv" : "=a"(a), "=d"(d) : "c"(0));
    return (uint64_t)d << 32 | a;
}
__attribute__((constructor)) static void probe_prepare(void) { probe_xsave = xcr0() ? 1 : 0; }

C_NAME void probe(void);
__asm__(".text\n.globl probe\n.type probe,@function\nprobe:\n"
        "mov %rax,dump(%rip)\n mov %rcx,dump+8(%rip)\n mov %rdx,dump+16(%rip)\n mov %rbx,dump+24(%rip)\n"
        "mov %rsp,dump+32(%rip)\n mov %rbp,dump+40(%rip)\n mov %rsi,dump+48(%rip)\n mov %rdi,dump+56(%rip)\n"
        "mov %r8,dump+64(%rip)\n mov %r9,dump+72(%rip)\n mov %r10,dump+80(%rip)\n mov %r11,dump+88(%rip)\n"
        "mov %r12,dump+96(%rip)\n mov %r13,dump+104(%rip)\n mov %r14,dump+112(%rip)\n mov %r15,dump+120(%rip)\n"
        "lea probe_stack+64(%rip),%rsp\n pushfq\n popq dump+128(%rip)\n"
        "mov %fs:0,%rax\n mov %rax,dump+136(%rip)\n xor %eax,%eax\n"
        "mov %ds,%ax\n mov %rax,dump+144(%rip)\n mov %es,%ax\n mov %rax,dump+152(%rip)\n mov %fs,%ax\n mov %rax,dump+160(%rip)\n"
        "mov %gs,%ax\n mov %rax,dump+168(%rip)\n mov %ss,%ax\n mov %rax,dump+176(%rip)\n mov %cs,%ax\n mov %rax,dump+184(%rip)\n"
        "cmpb $0,probe_xsave(%rip)\n je 1f\n mov $-1,%eax\n mov $-1,%edx\n xsave64 dump+256(%rip)\n jmp 2f\n"
        "1: fxsave64 dump+256(%rip)\n"
        "2: mov $0x65626f7270,%rax\n mov %rax,dump+192(%rip)\n mov dump+32(%rip),%rsp\n mov dump+56(%rip),%rdi\n jmp _start\n");

/* ---- types ---- */

FN(echo) {
    UNUSED;
    return hlsnap_call_return(call, hlsnap_call_arg(call, 0));
}
FN(pass) { /* the same by way of the host function that user names */
    hlsnap_value v = hlsnap_call_arg(call, 0), out;
    if (hlsnap_rt_call((const char *)user, &v, 1, &out, NULL)) return hlsnap_call_fail(call, -1, "host");
    return hlsnap_call_return(call, out);
}
FN(args32) {
    uint64_t h = 0;
    size_t i;
    UNUSED;
    for (i = 0; i < HLSNAP_MAX_ARGS; i++) h = h * 31 + ARG(i).u64;
    return hlsnap_call_return(call, hlsnap_u64(h));
}
FN(mixed) {
    hlsnap_value s = hlsnap_call_arg(call, 7), b = hlsnap_call_arg(call, 8);
    UNUSED;
    return hlsnap_call_return_fmt(call, "%d %d %u %lld %llu %g %.17g [%s] %zu %02x", ARG(0).b, ARG(1).i32, ARG(2).u32, (long long)ARG(3).i64,
                                  (unsigned long long)ARG(4).u64, (double)ARG(5).f32, ARG(6).f64, s.str, b.size, b.size ? b.bytes[b.size - 1] : 0u);
}
FN(reserved) {
    const uint32_t n = ARG(0).u32;
    uint8_t *p = (uint8_t *)hlsnap_call_reserve(call, n);
    uint32_t i;
    UNUSED;
    for (i = 0; p && i < n; i++) p[i] = (uint8_t)(i * 31);
    return hlsnap_call_return_reserved(call, n - n / 4);
}
FN(number) {
    UNUSED;
    return hlsnap_call_return_fmt(call, hlsnap_call_arg(call, 0).str, ARG(1).f64);
}
FN(host32) {
    hlsnap_value v[HLSNAP_MAX_ARGS], out;
    uint32_t i;
    UNUSED;
    for (i = 0; i < HLSNAP_MAX_ARGS; i++) v[i] = hlsnap_u64(ARG(0).u64 + i);
    if (hlsnap_rt_call("host_args32", v, HLSNAP_MAX_ARGS, &out, NULL)) return hlsnap_call_fail(call, -1, "host");
    return hlsnap_call_return(call, out);
}
FN(host_error) { /* 1000 * result code + user code of a host function that fails */
    hlsnap_error err;
    hlsnap_value out;
    hlsnap_result r;
    UNUSED;
    err.user_code = 0;
    r = hlsnap_rt_call(hlsnap_call_arg(call, 0).str, HLSNAP_NO_ARGS, &out, &err);
    return hlsnap_call_return(call, hlsnap_i32((int32_t)r * 1000 + err.user_code));
}
FN(host_loop) { /* n host calls */
    hlsnap_value v, out;
    int32_t i, sum = 0;
    UNUSED;
    for (i = 0; i < ARG(0).i32; i++) {
        v = hlsnap_i32(i);
        if (hlsnap_rt_call("host_i32", &v, 1, &out, NULL)) return hlsnap_call_fail(call, i, "host");
        sum += out.as.i32;
    }
    return hlsnap_call_return(call, hlsnap_i32(sum));
}
FN(host_void) {
    UNUSED;
    return hlsnap_rt_call("host_void", HLSNAP_NO_ARGS, NULL, NULL) ? hlsnap_call_fail(call, -1, "host") : HLSNAP_OK;
}
FN(fail) {
    UNUSED;
    return hlsnap_call_fail(call, ARG(0).i32, hlsnap_call_arg(call, 1).str);
}

/* ---- the runtime ---- */

FN(nop) {
    (void)call;
    UNUSED;
    return HLSNAP_OK;
}
FN(count) {
    UNUSED;
    return hlsnap_call_return(call, hlsnap_u64(counter++));
}
FN(log_line) {
    UNUSED;
    if (ARG(0).i32) hlsnap_rt_log(ARG(0).i32, "%s", hlsnap_call_arg(call, 1).str);
    else hlsnap_rt_print("%s", hlsnap_call_arg(call, 1).str);
    return HLSNAP_OK;
}
FN(abort_with) {
    UNUSED;
    hlsnap_rt_abort(ARG(0).i32, hlsnap_call_arg(call, 1).str);
}
FN(random_bytes) {
    uint8_t b[32];
    UNUSED;
    hlsnap_rt_random(b, sizeof(b));
    return hlsnap_call_return(call, hlsnap_bytes(b, sizeof(b)));
}
FN(generation) {
    UNUSED;
    return hlsnap_call_return(call, hlsnap_u64(hlsnap_rt_generation()));
}
FN(tls) { /* initialised and zero-initialised thread-local variables, counted up */
    UNUSED;
    tls_zero++;
    return hlsnap_call_return(call, hlsnap_u64(++tls_value * 1000 + tls_zero));
}
FN(was_constructed) {
    UNUSED;
    return hlsnap_call_return(call, hlsnap_u64(constructed));
}
FN(heap_use) { /* blocks of growing sizes, checked, freed; the number that could be had */
    static uint8_t *blocks[64];
    uint32_t i, k, got = 0;
    UNUSED;
    for (i = 0; i < 64; i++) {
        blocks[i] = (uint8_t *)hlsnap_rt_malloc(i * ARG(0).u32);
        if (!blocks[i]) break;
        for (k = 0; k < i * ARG(0).u32; k++) blocks[i][k] = (uint8_t)(i + k);
        got++;
    }
    for (i = 0; i < got; i++) {
        for (k = 0; k < i * ARG(0).u32; k++)
            if (blocks[i][k] != (uint8_t)(i + k)) return hlsnap_call_fail(call, (int32_t)i, "heap content");
        hlsnap_rt_free(blocks[i]);
    }
    return hlsnap_call_return(call, hlsnap_u32(got));
}
FN(heap_bad_free) {
    static uint64_t words[8];
    (void)call;
    UNUSED;
    hlsnap_rt_free(&words[4]);
    return HLSNAP_OK;
}
__attribute__((noinline)) static void overrun(volatile char *p, uint32_t n) {
    uint32_t i;
    for (i = 0; i < n; i++) p[i] = 0x41;
}
#if defined(__SSP__) || defined(__SSP_STRONG__) || defined(__SSP_ALL__)
#define PROTECTED
#elif defined(__GNUC__) && !defined(__clang__)
#define PROTECTED __attribute__((optimize("stack-protector-all")))
#endif
#ifdef PROTECTED
PROTECTED
#endif
__attribute__((noinline)) static void smash_in(uint32_t n) {
    volatile char buffer[16];
    buffer[0] = 0;
    overrun(buffer, n);
}
FN(smash) { /* n bytes over a buffer of 16; for n = 0 says whether this guest has a stack protector */
    int32_t is_protected = 0;
    UNUSED;
    smash_in(ARG(0).u32);
#ifdef PROTECTED
    is_protected = 1;
#endif
    return hlsnap_call_return(call, hlsnap_i32(is_protected));
}
FN(spin) { /* n rounds; 0 = for ever */
    uint64_t i, n = ARG(0).u64, x = 88172645463325252ull;
    UNUSED;
    for (i = 0; !n || i < n; i++) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        __asm__ volatile("" : "+r"(x));
    }
    return hlsnap_call_return(call, hlsnap_u64(x));
}

/* ---- memory ---- */

FN(addresses) {
    guest_addresses a;
    int local;
    UNUSED;
    a.probe = (uint64_t)(uintptr_t)&probe;
    a.dump = (uint64_t)(uintptr_t)&dump;
    a.xsave_flag = (uint64_t)(uintptr_t)&probe_xsave;
    a.text = (uint64_t)(uintptr_t)&addresses;
    a.rodata = (uint64_t)(uintptr_t)rodata_text;
    a.data = (uint64_t)(uintptr_t)&counter;
    a.bss = (uint64_t)(uintptr_t)bss_pages;
    a.tls = (uint64_t)(uintptr_t)&tls_value;
    a.heap = hlsnap__rt_identity()->heap;
    a.stack = (uint64_t)(uintptr_t)&local;
    sink = constructed;
    return hlsnap_call_return(call, hlsnap_bytes(&a, sizeof(a)));
}
FN(poke) { /* len low bytes of value to addr */
    volatile uint8_t *p = (volatile uint8_t *)(uintptr_t)ARG(0).u64;
    uint64_t v = ARG(1).u64;
    uint32_t i, n = ARG(2).u32;
    UNUSED;
    for (i = 0; i < n && i < 8; i++) p[i] = (uint8_t)(v >> 8 * i);
    return hlsnap_call_return(call, hlsnap_u64(p[0]));
}
FN(fill) { /* bytes from addr on, by a generator; stride 4096 touches one byte a page */
    volatile uint8_t *p = (volatile uint8_t *)(uintptr_t)ARG(0).u64;
    uint64_t n = ARG(1).u64, x = ARG(2).u64 | 1, i;
    const uint64_t stride = ARG(3).u32 ? ARG(3).u32 : 1;
    UNUSED;
    for (i = 0; i < n; i += stride) {
        x = x * 6364136223846793005ull + 1442695040888963407ull;
        p[i] = (uint8_t)(x >> 56);
    }
    return HLSNAP_OK;
}
FN(sum) {
    const volatile uint8_t *p = (const volatile uint8_t *)(uintptr_t)ARG(0).u64;
    uint64_t i, s = 0;
    UNUSED;
    for (i = 0; i < ARG(1).u64; i++) s = s * 31 + p[i];
    return hlsnap_call_return(call, hlsnap_u64(s));
}

FN(map) { /* where a map lies; 0: there is none */
    uint64_t size;
    const void *at = hlsnap_rt_map(hlsnap_call_arg(call, 0).str, &size);
    UNUSED;
    return hlsnap_call_return(call, hlsnap_u64(ARG(1).b ? size : (uint64_t)(uintptr_t)at));
}
/* The sum of one byte in each stride. */
static uint64_t touch(const volatile uint8_t *p, uint64_t n, uint64_t stride) {
    uint64_t i, s = 0;
    for (i = 0; i < n; i += stride) s += p[i];
    return s;
}

/* ---- images ---- */

/* Two images in turn where the last one was just read and written; -> what was not as the image has it, or lost. */
static uint32_t image_turns(size_t n, uint64_t rounds) {
    const size_t size = n * 4096;
    volatile uint64_t *a = (volatile uint64_t *)PAGES_ALLOC(size), *to = (volatile uint64_t *)PAGES_ALLOC(size);
    hlsnap_rt_image *images[2];
    uint32_t bad = 0, round;
    size_t i, k;
    for (k = 0; k < 2; k++) {
        for (i = 0; i < n; i++) a[i * 512] = (k + 1) * 1000000 + i;
        images[k] = hlsnap_rt_image_new((const void *)a, size);
        if (!images[k]) return 1u << 31;
    }
    for (round = 0; round < rounds; round++) {
        k = round % 2;
        bad += hlsnap_rt_image_map(images[k], (void *)to, 0, size) != HLSNAP_OK;
        for (i = 0; i < n; i++) bad += to[i * 512] != (k + 1) * 1000000 + i;
        for (i = round % 3; i < n; i += 3) to[i * 512] = 7;
        for (i = round % 3; i < n; i += 3) bad += to[i * 512] != 7;
    }
    for (k = 0; k < 2; k++) {
        hlsnap_rt_image_free(images[k]);
        for (i = 0; i < n; i++) bad += k && a[i * 512] != 2000000 + i;
    }
    hlsnap_rt_free((void *)a);
    hlsnap_rt_free((void *)to);
    return bad;
}
/* So often: made, mapped, freed while it is mapped; -> what was not as it ought to be. */
static uint32_t image_cycles(uint64_t n) {
    const size_t size = 32 * 4096;
    volatile uint64_t *a = (volatile uint64_t *)PAGES_ALLOC(size), *to = (volatile uint64_t *)PAGES_ALLOC(size);
    uint32_t i, bad = 0;
    for (i = 1; i <= n; i++) {
        hlsnap_rt_image *image;
        a[i % 32 * 512] = i;
        image = hlsnap_rt_image_new((const void *)a, size);
        if (!image) return 1u << 31;
        bad += hlsnap_rt_image_map(image, (void *)to, 0, size) != HLSNAP_OK;
        hlsnap_rt_image_free(image);
        bad += to[i % 32 * 512] != i;
    }
    hlsnap_rt_free((void *)a);
    hlsnap_rt_free((void *)to);
    return bad;
}

FN(pages) { /* PAGES_x, IMAGE_x, and what it takes */
    const uint64_t a = ARG(1).u64, b = ARG(2).u64, c = ARG(3).u64, d = ARG(4).u64;
    uint64_t out = 0;
    UNUSED;
    switch (ARG(0).u32) {
    case PAGES_NEW: out = (uint64_t)(uintptr_t)PAGES_ALLOC((size_t)a * 4096); break;
    case IMAGE_NEW: out = (uint64_t)(uintptr_t)hlsnap_rt_image_new((const void *)(uintptr_t)a, (size_t)b); break;
    case IMAGE_MAP: out = (uint64_t)hlsnap_rt_image_map((hlsnap_rt_image *)(uintptr_t)a, (void *)(uintptr_t)b, (size_t)c, (size_t)d); break;
    case IMAGE_FREE: hlsnap_rt_image_free((hlsnap_rt_image *)(uintptr_t)a); break;
    case IMAGE_TURNS: out = image_turns((size_t)a, b); break;
    case PAGES_TOUCH: out = touch((const volatile uint8_t *)(uintptr_t)a, b, c); break;
    case IMAGE_CYCLES: out = image_cycles(a); break;
    default: out = (uint64_t)hlsnap__rt_image_ask((const void *)(uintptr_t)a, (void *)(uintptr_t)b, (size_t)c, (uint32_t)d);
    }
    return hlsnap_call_return(call, hlsnap_u64(out));
}

/* ---- faults ---- */

__attribute__((noinline)) static uint64_t overflow(uint64_t depth) {
    volatile uint8_t frame[256];
    frame[0] = (uint8_t)depth;
    if (sink == 1) return 0;
    return overflow(depth + 1) + frame[0];
}
static void go_to(uint64_t at) { __asm__ volatile("call *%0" : : "r"(at) : "memory"); }
static uint64_t misaligned(int sse) {
    uint8_t *p = bss_pages + 1;
    if (sse) __asm__ volatile("movaps %%xmm0, (%0)" : : "r"(p) : "memory");
    else __asm__ volatile("pushfq; orq $0x40000, (%%rsp); popfq; movq %0, (%1)" : : "r"(p), "r"(p) : "memory", "cc");
    return 0;
}
static void exception_unmasked(int simd) {
    static const uint32_t mxcsr = 0x1f80 & ~(1u << 9);
    static const uint16_t cw = 0x37f & (uint16_t)~4u;
    if (simd) {
        __asm__ volatile("ldmxcsr %0; xorps %%xmm0,%%xmm0; movss %1,%%xmm1; divss %%xmm0,%%xmm1" : : "m"(mxcsr), "m"(cw));
        return;
    }
    __asm__ volatile("fldcw %0; fld1; fldz; fdivrp %%st,%%st(1); fwait" : : "m"(cw));
}
static void segment_base(uint64_t at, int gs) {
    if (gs) __asm__ volatile(".byte 0xf3,0x48,0x0f,0xae,0xd8" : : "a"(at));            /* wrgsbase %rax */
    else __asm__ volatile("mov %%fs:0,%%rcx\n.byte 0xf3,0x48,0x0f,0xae,0xd0\n"         /* wrfsbase %rax, and back */
                          "mov %%rcx,%%rax\n.byte 0xf3,0x48,0x0f,0xae,0xd0" : : "a"(at) : "rcx");
}
static uint64_t privileged(uint32_t kind, uint64_t at) {
    uint64_t r = 0;
    static const uint8_t table[10] = {0};
    switch (kind) {
    case FAULT_HLT: __asm__ volatile("hlt"); break;
    case FAULT_CLI: __asm__ volatile("cli"); break;
    case FAULT_STI: __asm__ volatile("sti"); break;
    case FAULT_IN: __asm__ volatile("inb %%dx, %%al" : "=a"(r) : "d"(at)); break;
    case FAULT_OUT: __asm__ volatile("outb %%al, %%dx" : : "a"(0), "d"(at)); break;
    case FAULT_OUT16: __asm__ volatile("outw %%ax, %%dx" : : "a"(0), "d"(at)); break;
    case FAULT_MOV_CR0: __asm__ volatile("mov %%cr0, %0" : "=r"(r)); break;
    case FAULT_MOV_CR3: __asm__ volatile("mov %0, %%cr3" : : "r"(r)); break;
    case FAULT_LGDT: __asm__ volatile("lgdt %0" : : "m"(table)); break;
    case FAULT_RDMSR: __asm__ volatile("rdmsr" : "=a"(r) : "c"(0xc0000080u) : "rdx"); break;
    case FAULT_WRMSR: __asm__ volatile("wrmsr" : : "a"(0), "d"(0), "c"(0xc0000100u)); break;
    case FAULT_SWAPGS: __asm__ volatile("swapgs"); break;
    case FAULT_IRET: __asm__ volatile("push $0x10; push $0; pushfq; push $8; push $0x1000; iretq"); break;
    default: break;
    }
    return r;
}
static uint64_t trap(uint32_t kind, uint64_t at) {
    uint64_t r = 1;
    switch (kind) {
    case FAULT_INT3: __asm__ volatile("int3"); break;
    case FAULT_INT_N: __asm__ volatile("int $0x80"); break;
    case FAULT_INT_14: __asm__ volatile("int $14"); break;
    case FAULT_ICEBP: __asm__ volatile(".byte 0xf1"); break;
    case FAULT_SYSCALL: __asm__ volatile("syscall" : "+a"(r) : : "rcx", "r11", "memory"); break;
    case FAULT_SYSENTER: __asm__ volatile("sysenter" : : : "memory"); break;
    case FAULT_CPUID: return cpuid(0, 0, 1);
    case FAULT_VMCALL: __asm__ volatile("vmcall" : "+a"(r) : : "memory"); break;
    case FAULT_VMMCALL: __asm__ volatile("vmmcall" : "+a"(r) : : "memory"); break;
    case FAULT_WRFSBASE: segment_base(at, 0); break;
    case FAULT_WRGSBASE: segment_base(at, 1); break;
    case FAULT_SIMD: exception_unmasked(1); break;
    case FAULT_X87: exception_unmasked(0); break;
    case FAULT_TF: __asm__ volatile("pushfq; orq $0x100, (%%rsp); popfq; nop; nop" : : : "cc", "memory"); break;
    case FAULT_GATE: __asm__ volatile("xor %%r10d,%%r10d; xor %%r11d,%%r11d; jmp *%0" : : "r"(at) : "r10", "r11"); break;
    default: break;
    }
    return r;
}
FN(fault) {
    const uint32_t kind = ARG(0).u32;
    const uint64_t at = ARG(1).u64;
    uint64_t r = 0;
    UNUSED;
    switch (kind) {
    case FAULT_DIV: __asm__ volatile("xor %%edx,%%edx; xor %%eax,%%eax; xor %%ecx,%%ecx; div %%ecx" : : : "rax", "rcx", "rdx", "cc"); break;
    case FAULT_UD: __asm__ volatile("ud2"); break;
    case FAULT_READ: __asm__ volatile("movb (%1), %%al" : "=a"(r) : "r"(at) : "memory"); break;
    case FAULT_WRITE: __asm__ volatile("movb $1, (%0)" : : "r"(at) : "memory"); break;
    case FAULT_EXEC: go_to(at); break;
    case FAULT_STACK: r = overflow(0); break;
    case FAULT_RSP: __asm__ volatile("mov %0, %%rsp; push %%rax" : : "r"(0x8000000000000000ull) : "memory"); break;
    case FAULT_ALIGN: r = misaligned(0); break;
    case FAULT_SSE_ALIGN: r = misaligned(1); break;
    default: r = kind < FAULT_INT3 || kind == FAULT_RDMSR || kind == FAULT_WRMSR || kind == FAULT_SWAPGS || kind == FAULT_IRET
                 ? privileged(kind, at) : trap(kind, at);
    }
    return hlsnap_call_return(call, hlsnap_u64(r));
}

/* ---- ports ---- */

#define BLOCK(instruction, n) __asm__ volatile(instruction : "+S"(p), "+D"(q), "+c"(count) : "d"(at) : "memory")
FN(port) {
    const uint64_t at = ARG(1).u32;
    uint64_t r = 0, count = 5;
    uint8_t *p = bss_pages, *q = bss_pages + 64;
    UNUSED;
    switch (ARG(0).u32) {
    case PORT_IN8: __asm__ volatile("inb %%dx, %%al" : "=a"(r) : "d"(at)); break;
    case PORT_IN16: __asm__ volatile("inw %%dx, %%ax" : "=a"(r) : "d"(at)); break;
    case PORT_IN32: __asm__ volatile("inl %%dx, %%eax" : "=a"(r) : "d"(at)); break;
    case PORT_INSB: BLOCK("insb", 1); break;
    case PORT_REP_INSB: BLOCK("rep insb", 5); break;
    case PORT_OUTSB: BLOCK("outsb", 1); break;
    case PORT_REP_OUTSB: BLOCK("rep outsb", 5); break;
    case PORT_REP_OUTSW: BLOCK("rep outsw", 5); break;
    case PORT_OUT16: __asm__ volatile("outw %%ax, %%dx" : : "a"(0), "d"(at)); break;
    case PORT_OUT32: __asm__ volatile("outl %%eax, %%dx" : : "a"(0), "d"(at)); break;
    default: break;
    }
    return hlsnap_call_return(call, hlsnap_u64(r));
}

/* ---- registers ---- */

static void dirty_registers(uint32_t bits) {
    static const uint32_t mxcsr = 0x1f80 | 0x6000 | 0x8040 | 0x3f;
    static const uint8_t pattern[64] = {0xa5, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 0xa5, 0xa5, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 0xa5,
                                        0xa5, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 0xa5, 0xa5, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 0xa5};
    const uint64_t x = xcr0();
    if (bits & DIRTY_X87) __asm__ volatile("fninit; fldpi; fldl2e; fld1; fldl2t; fldlg2; fldln2; fmull %0" : : "m"(pattern));
    if (bits & DIRTY_SSE)
        __asm__ volatile("movups %0,%%xmm0; movups %0,%%xmm1; movups %0,%%xmm7; movups %0,%%xmm8; movups %0,%%xmm15" : : "m"(pattern));
    if (bits & DIRTY_AVX && (x & 6) == 6)
        __asm__ volatile("vmovups %0,%%ymm2; vmovups %0,%%ymm9; vmovups %0,%%ymm15" : : "m"(pattern));
    if (bits & DIRTY_AVX512 && (x & 0xe6) == 0xe6 && cpuid(7, 0, 1) >> 16 & 1)
        __asm__ volatile("vmovups %0,%%zmm3; vmovups %0,%%zmm15; vmovups %0,%%zmm16; vmovups %0,%%zmm31; mov $0x5a5a,%%eax; kmovw %%eax,%%k1; "
                         "kmovw %%eax,%%k7" : : "m"(pattern) : "rax");
    if (bits & DIRTY_MXCSR) __asm__ volatile("ldmxcsr %0" : : "m"(mxcsr));
}
FN(dirty) {
    (void)call;
    UNUSED;
    dirty_registers(ARG(0).u32 & (uint32_t)~DIRTY_MXCSR);
    return HLSNAP_OK;
}
FN(leave) { /* out of the VM with everything dirty: flags, general registers, segments; nothing the runtime would write */
    const uint32_t bits = ARG(0).u32;
    (void)call;
    UNUSED;
    dirty_registers(bits);
    if (bits & LEAVE_GSBASE) segment_base(0x123456000ull, 1);
    if (bits & LEAVE_SEGMENTS) __asm__ volatile("mov %0,%%gs; mov %0,%%ds; mov %1,%%es" : : "r"(0x1b), "r"(0));
    if (bits & LEAVE_FSBASE) __asm__ volatile(".byte 0xf3,0x48,0x0f,0xae,0xd0" : : "a"(0x654321000ull));
    if (bits & LEAVE_FLAGS) __asm__ volatile("pushfq; orq $0x40cd5, (%%rsp); popfq" : : : "cc", "memory"); /* AC OF DF SF ZF AF PF CF */
    __asm__ volatile("mov $0xdead,%%rbx; mov %%rbx,%%rcx; mov %%rbx,%%rdx; mov %%rbx,%%rsi; mov %%rbx,%%rbp; mov %%rbx,%%r8; mov %%rbx,%%r9;"
                     "mov %%rbx,%%r10; mov %%rbx,%%r12; mov %%rbx,%%r13; mov %%rbx,%%r14; mov %%rbx,%%r15; mov %%rbx,%%r11\n"
                     "test $512,%%eax; jnz 2f; test $1024,%%eax; jnz 3f\n"
                     "1: outb %%al,$0xe0; jmp 1b\n2: jmp 2b\n3: outb %%al,$0xe1; jmp 3b" : : "a"(bits) : "memory");
    __builtin_unreachable();
}

#define TF "pushfq\n orl $0x100,(%%rsp)\n mov %%ss,%%ecx\n popfq\n"
#define MOVSS "mov %%ecx,%%ss\n"
#define ODD(text) __asm__ volatile("mov %%ss,%%ecx\n" text "1: jmp 1b" : : "a"(0) : "rcx", "cc", "memory")
FN(odd) { /* never returns by itself */
    (void)call;
    UNUSED;
    switch (ARG(0).u32) {
    case ODD_TF_OUT: ODD(TF "outb %%al,$0xe0\n"); break;
    case ODD_TF_CALL: ODD(TF "outb %%al,$0xe1\n"); break;
    case ODD_MOVSS_OUT: ODD(MOVSS "outb %%al,$0xe0\n"); break;
    case ODD_MOVSS_CALL: ODD(MOVSS "outb %%al,$0xe1\n"); break;
    case ODD_POPSS_OUT: ODD("push %%rcx\n .byte 0x8e,0x14,0x24\n outb %%al,$0xe0\n"); break; /* mov (%rsp),%ss: there is no pop */
    case ODD_TF_MOVSS_OUT: ODD(TF MOVSS "outb %%al,$0xe0\n"); break;
    case ODD_TF_MOVSS_CALL: ODD(TF MOVSS "outb %%al,$0xe1\n"); break;
    case ODD_TF_MOVSS_IN: ODD(TF MOVSS "inb $0xe0,%%al\n"); break;
    case ODD_TF_MOVSS_UD: ODD(TF MOVSS "ud2\n"); break;
    case ODD_TF_MOVSS_INT3: ODD(TF MOVSS "int3\n"); break;
    case ODD_TF_MOVSS_ICEBP: ODD(TF MOVSS ".byte 0xf1\n"); break;
    case ODD_TF_MOVSS_SYSCALL: ODD(TF MOVSS "syscall\n"); break;
    case ODD_TF_MOVSS_PF: ODD(TF MOVSS "movb %%al,(%%rax)\n"); break;
    case ODD_MOVSS_PF: ODD(MOVSS "movb %%al,(%%rax)\n"); break;
    default: ODD(TF); break;
    }
    return HLSNAP_OK;
}

#ifdef GUEST_SYSCALL
/* The entry counts, and does as it was told: answers, leaves, loops, faults. Its state is the guest's, as all its memory. */
static uint64_t system_calls ASM_NAME("system_calls"), system_how ASM_NAME("system_how");
__asm__(".pushsection .note.hlsnap,\"a\",@note\n.p2align 2\n.long 7, 16, 2\n.asciz \"hlsnap\"\n.p2align 2\n"
        "8: .quad _start - 8b\n9: .quad system_entry - 9b\n.popsection\n"
        ".text\n.p2align 4\nsystem_entry:\n incq system_calls(%rip)\n testl $16,system_how(%rip)\n jnz 1f\n testl $32,system_how(%rip)\n jnz 2f\n"
        "testl $64,system_how(%rip)\n jnz 3f\n lea 1(%rax),%rax\n jmp *%rcx\n 1: outb %al,$0xe0\n jmp 1b\n 2: jmp 2b\n 3: ud2\n");
#define SYSCALL(before) __asm__ volatile("mov %%ss,%%edx; push %1; " before "syscall" : "+a"(number) : "r"(flags) : "rcx", "rdx", "r11", "memory", "cc")
FN(system_call) { /* how: SYSTEM_x, and what to make dirty above bit 8 */
    const uint32_t bits = ARG(0).u32;
    const uint64_t flags = bits & SYSTEM_TF ? 0x302 : bits & SYSTEM_FLAGS ? 0x40ad7 : 0x202;
    uint64_t number = 5;
    UNUSED;
    system_how = bits;
    dirty_registers(bits >> 8);
    if (bits & SYSTEM_GS) segment_base(0x123456000ull, 1);
    if (bits & SYSTEM_FS && bits & (SYSTEM_LEAVE | SYSTEM_LOOP | SYSTEM_FAULT))
        __asm__ volatile(".byte 0xf3,0x48,0x0f,0xae,0xd0" : : "a"(0x654321000ull));
    if (bits & SYSTEM_SHADOW) SYSCALL("popfq; mov %%edx,%%ss; ");
    else SYSCALL("popfq; ");
    __asm__ volatile("pushq $2; popfq" : : : "memory", "cc");
    return hlsnap_call_return(call, hlsnap_u64(number * 1000 + system_calls % 1000));
}
#endif

#ifdef HLSNAP_GUEST_LIBC
/* What a libc and the personality keep: blocks, streams, files, the environment, threads, errno, the clock's last answer. */
static void *kept[16];
static void *count_there(void *user) { return ++*(uint64_t *)user, user; }
FN(system_call) {
    const uint32_t n = ARG(0).u32, which = n / 6;
    uint64_t sum = (uint64_t)time(NULL);
    char path[32];
    pthread_t t;
    FILE *f;
    UNUSED;
    snprintf(path, sizeof(path), "/tmp/f%u", which % 7);
    switch (n % 6) {
    case 0:
        free(kept[which % 16]);
        kept[which % 16] = malloc(which % 9000 + 1);
        if (kept[which % 16]) memset(kept[which % 16], (int)n, which % 9000 + 1);
        break;
    case 1:
        f = fopen(path, "a+");
        if (!f) break;
        fprintf(f, "%u at %llu\n", n, (unsigned long long)sum);
        rewind(f);
        while (fgetc(f) != EOF) sum++;
        fclose(f);
        break;
    case 2: setenv(path + 5, path, 1); break;
    case 3: errno = unlink(path) ? errno : (int)which; break;
    case 4:
        if (pthread_create(&t, NULL, count_there, &sum) == 0) pthread_join(t, NULL);
        break;
    default: printf("%d %ld %s\n", rand(), (long)getpid(), strerror(errno));
    }
    return hlsnap_call_return(call, hlsnap_u64(sum));
}
#endif

#define U64x8 "u64,u64,u64,u64,u64,u64,u64,u64"
static const hlsnap_function exports[] = {
    {"echo_bool", "bool(bool)", echo, NULL}, {"echo_i32", "i32(i32)", echo, NULL}, {"echo_u32", "u32(u32)", echo, NULL},
    {"echo_i64", "i64(i64)", echo, NULL}, {"echo_u64", "u64(u64)", echo, NULL}, {"echo_f32", "f32(f32)", echo, NULL},
    {"echo_f64", "f64(f64)", echo, NULL}, {"echo_str", "str(str)", echo, NULL}, {"echo_bytes", "bytes(bytes)", echo, NULL},
    {"pass_bool", "bool(bool)", pass, (void *)"host_bool"}, {"pass_i32", "i32(i32)", pass, (void *)"host_i32"},
    {"pass_u32", "u32(u32)", pass, (void *)"host_u32"}, {"pass_i64", "i64(i64)", pass, (void *)"host_i64"},
    {"pass_u64", "u64(u64)", pass, (void *)"host_u64"}, {"pass_f32", "f32(f32)", pass, (void *)"host_f32"},
    {"pass_f64", "f64(f64)", pass, (void *)"host_f64"}, {"pass_str", "str(str)", pass, (void *)"host_str"},
    {"pass_bytes", "bytes(bytes)", pass, (void *)"host_bytes"},
    {"args32", "u64(" U64x8 "," U64x8 "," U64x8 "," U64x8 ")", args32, NULL},
    {"mixed", "str(bool,i32,u32,i64,u64,f32,f64,str,bytes)", mixed, NULL}, {"number", "str(str,f64)", number, NULL},
    {"reserved", "bytes(u32)", reserved, NULL},
    {"host32", "u64(u64)", host32, NULL}, {"host_error", "i32(str)", host_error, NULL}, {"host_loop", "i32(i32)", host_loop, NULL},
    {"host_void", "void()", host_void, NULL}, {"fail", "i32(i32,str)", fail, NULL}, {"nop", "void()", nop, NULL}, {"count", "u64()", count, NULL},
    {"log", "void(i32,str)", log_line, NULL}, {"abort", "void(i32,str)", abort_with, NULL}, {"random", "bytes()", random_bytes, NULL},
    {"generation", "u64()", generation, NULL}, {"tls", "u64()", tls, NULL}, {"constructed", "u64()", was_constructed, NULL},
    {"heap", "u32(u32)", heap_use, NULL}, {"bad_free", "void()", heap_bad_free, NULL}, {"smash", "i32(u32)", smash, NULL},
    {"spin", "u64(u64)", spin, NULL}, {"addresses", "bytes()", addresses, NULL}, {"poke", "u64(u64,u64,u32)", poke, NULL},
    {"fill", "void(u64,u64,u64,u32)", fill, NULL}, {"sum", "u64(u64,u64)", sum, NULL}, {"fault", "u64(u32,u64)", fault, NULL},
    {"port", "u64(u32,u32)", port, NULL}, {"dirty", "void(u32)", dirty, NULL}, {"leave", "void(u32)", leave, NULL}, {"odd", "void(u32)", odd, NULL},
    {"map", "u64(str,bool)", map, NULL}, {"pages", "u64(u32,u64,u64,u64,u64)", pages, NULL}
#if defined(GUEST_SYSCALL) || defined(HLSNAP_GUEST_LIBC)
    , {"system", "u64(u32)", system_call, NULL}
#endif
#ifdef __cplusplus /* so many that their parsed signatures stand on the heap */
#define MANY(n) , {"many" n "0", "u32(u32)", echo, NULL}, {"many" n "1", "i64(i64)", echo, NULL}, {"many" n "2", "f64(f64)", echo, NULL}, \
    {"many" n "3", "bool(bool)", echo, NULL}, {"many" n "4", "str(str)", echo, NULL}, {"many" n "5", "bytes(bytes)", echo, NULL}
    MANY("0") MANY("1") MANY("2") MANY("3") MANY("4") MANY("5") MANY("6") MANY("7")
#endif
};
static const hlsnap_function imports[] = {
    {"host_bool", "bool(bool)", NULL, NULL}, {"host_i32", "i32(i32)", NULL, NULL}, {"host_u32", "u32(u32)", NULL, NULL},
    {"host_i64", "i64(i64)", NULL, NULL}, {"host_u64", "u64(u64)", NULL, NULL}, {"host_f32", "f32(f32)", NULL, NULL},
    {"host_f64", "f64(f64)", NULL, NULL}, {"host_str", "str(str)", NULL, NULL}, {"host_bytes", "bytes(bytes)", NULL, NULL},
    {"host_args32", "u64(" U64x8 "," U64x8 "," U64x8 "," U64x8 ")", NULL, NULL}, {"host_fails", "void()", NULL, NULL},
    {"host_void", "void()", NULL, NULL}};
static const hlsnap_module module = {exports, HLSNAP_COUNT(exports), imports, HLSNAP_COUNT(imports)};
HLSNAP_GUEST_MAIN(module);
#ifdef HLSNAP_GUEST_LIBC
int main(void) { hlsnap_rt_serve(); }
#endif

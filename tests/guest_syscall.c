/* guest_syscall.c - the guest of test_syscall.c: names an entry for system calls of its own, and attacks what leads there.
   cc: cc -O2 -DHLSNAP_GUEST -ffreestanding -nostdlib -static -Wl,--section-start=.last_page=0x600000 -I.. guest_syscall.c -o guest_syscall.elf */
#define HLSNAP_IMPLEMENTATION
#include "hlsnap.h"
#include "guest_syscall.h"

#define ASM_NAME(name) __asm__(name) __attribute__((used, aligned(64)))
#define FN(name) static hlsnap_result name(hlsnap_call *call, void *user)
#define ARG(i) hlsnap_call_arg(call, i).as

static sys_regs seen ASM_NAME("sys_seen"), in ASM_NAME("sys_in"), left ASM_NAME("sys_left");
static uint64_t hook ASM_NAME("sys_hook");
static uint64_t word ASM_NAME("sys_word");
static uint8_t hook_stack[8192] ASM_NAME("sys_hook_stack");
static uint8_t flags_stack[64] ASM_NAME("sys_flags_stack");
static uint64_t saved[1] ASM_NAME("sys_saved");
static uint8_t vectors[3 * SYS_VECTORS] __attribute__((aligned(4096)));
static uint64_t data[2] = {1, 2};

#define OFF(n) "+8*" #n "(%rip)"
#define TO(r, n) "mov %" #r ",sys_seen" OFF(n) "\n"
#define OUT(r, n) "mov %" #r ",sys_left" OFF(n) "\n"
#define IN(r, n) "mov sys_in" OFF(n) ",%" #r "\n"
#define REGS(X) X(rax, 0) X(rbx, 1) X(rdx, 2) X(rsi, 3) X(rdi, 4) X(rbp, 5) X(r8, 6) X(r9, 7) X(r10, 8) X(r12, 9) X(r13, 10) X(r14, 11) X(r15, 12)

/* The note; the entry, which stores what it finds, touches no flag before that, and no vector register; a second entry, which
   only says so. Their answer is 0x5ca11 and the number. */
__asm__(".pushsection .note.hlsnap,\"a\",@note\n.p2align 2\n.long 7, 16, 2\n.asciz \"hlsnap\"\n.p2align 2\n"
        "8: .quad _start - 8b\n9: .quad sys_entry - 9b\n.popsection\n"
        ".text\n.p2align 6\n.globl sys_entry\nsys_entry:\n" REGS(TO) TO(rsp, 13) TO(rcx, 15) TO(r11, 16)
        "lea sys_flags_stack+64(%rip),%rsp\n pushfq\n popq sys_seen" OFF(14) "\n mov sys_seen" OFF(13) ",%rsp\n"
        "mov sys_hook(%rip),%r11\n lea sys_flags_stack+64(%rip),%rsp\n pushfq\n"
        "incq sys_seen" OFF(17) "\n test %r11,%r11\n jnz 2f\n popfq\n mov sys_seen" OFF(13) ",%rsp\n mov sys_seen" OFF(16) ",%r11\n"
        "mov %eax,%eax\n lea 0x5ca11(%rax),%rax\n jmp *%rcx\n"
        "2: lea sys_hook_stack+8192(%rip),%rsp\n cld\n call *%r11\n"
        "mov sys_seen" OFF(15) ",%rcx\n mov sys_seen" OFF(13) ",%rsp\n jmp *%rcx\n"
        ".p2align 6\n.globl sys_other_entry\nsys_other_entry:\n mov $0x07e4,%eax\n jmp *%rcx\n"
        /* a system call as C functions are called */
        ".p2align 4\n.globl sys_call\nsys_call:\n mov %rdi,%rax\n syscall\n ret\n"
        ".p2align 6\n.globl sys_raw\nsys_raw:\n push %rbx\n push %rbp\n push %r12\n push %r13\n push %r14\n push %r15\n"
        "mov %rsp,sys_saved(%rip)\n mov %ss,%ecx\n mov %ecx,sys_word(%rip)\n pushq sys_in" OFF(14) "\n" REGS(IN)
        "cmpq $1,sys_in" OFF(17) "\n je 1f\n ja 2f\n popfq\n mov sys_in" OFF(13) ",%rsp\n syscall\n jmp 9f\n"
        "1: popfq\n syscall\n jmp 9f\n 2: cmpq $2,sys_in" OFF(17) "\n ja 3f\n popfq\n mov %ecx,%ss\n syscall\n jmp 9f\n"
        "3: popfq\n mov sys_word(%rip),%ss\n syscall\n jmp 9f\n"
        "9: mov %rsp,sys_left" OFF(13) "\n mov sys_saved(%rip),%rsp\n pushfq\n popq sys_left" OFF(14) "\n" REGS(OUT) OUT(rcx, 15) OUT(r11, 16)
        "pushq $2\n popfq\n pop %r15\n pop %r14\n pop %r13\n pop %r12\n pop %rbp\n pop %rbx\n ret\n"
        ".section .last_page,\"ax\"\n.p2align 12\nsys_last_page: .fill 4089,1,0x90\n.globl sys_last\nsys_last:\n mov $39,%eax\n syscall\n"
        "sys_last_end:\n.text\n");
void sys_entry(void);
void sys_other_entry(void);
void sys_raw(void);
void sys_last(void);
uint64_t sys_call(uint64_t number);

#define PRIVILEGED(text) __asm__ volatile(text : : "a"(0), "c"(arg), "d"(0), "D"(data) : "memory", "cc")
static uint64_t attack_now(uint32_t kind, uint64_t arg) {
    switch (kind) {
    case SYS_READ: return *(volatile uint8_t *)(uintptr_t)arg;
    case SYS_WRITE: *(volatile uint8_t *)(uintptr_t)arg = 0; break;
    case SYS_JUMP: /* with nothing in registers that could lead anywhere */
        __asm__ volatile("push %0; xor %%eax,%%eax; xor %%ebx,%%ebx; xor %%ecx,%%ecx; xor %%edx,%%edx; xor %%esi,%%esi; xor %%edi,%%edi; xor %%ebp,%%ebp;"
                         "xor %%r8d,%%r8d; xor %%r10d,%%r10d; xor %%r11d,%%r11d; ret" : : "r"(arg));
        break;
    case SYS_HLT: PRIVILEGED("hlt"); break;
    case SYS_CLI: PRIVILEGED("cli"); break;
    case SYS_IN: __asm__ volatile("inb %%dx,%%al" : : "a"(0), "d"(arg)); break;
    case SYS_OUT: __asm__ volatile("outb %%al,%%dx" : : "a"(0), "d"(arg)); break;
    case SYS_OUT16: __asm__ volatile("outw %%ax,%%dx" : : "a"(0), "d"(arg)); break;
    case SYS_READ_CR0: PRIVILEGED("mov %%cr0,%%rax"); break;
    case SYS_WRITE_CR0: PRIVILEGED("mov %%rax,%%cr0"); break;
    case SYS_WRITE_CR3: PRIVILEGED("mov %%rax,%%cr3"); break;
    case SYS_WRITE_CR4: PRIVILEGED("mov %%rax,%%cr4"); break;
    case SYS_READ_DR7: PRIVILEGED("mov %%dr7,%%rax"); break;
    case SYS_WRITE_DR7: PRIVILEGED("mov %%rax,%%dr7"); break;
    case SYS_RDMSR: PRIVILEGED("rdmsr"); break;
    case SYS_WRMSR: PRIVILEGED("wrmsr"); break;
    case SYS_SYSRET: PRIVILEGED("sysretq"); break;
    case SYS_SYSEXIT: PRIVILEGED("rex.W sysexit"); break;
    case SYS_SWAPGS: PRIVILEGED("swapgs"); break;
    case SYS_IRET: PRIVILEGED("mov %%rsp,%%rax; pushq $0x10; push %%rax; pushfq; pushq $8; lea 1f(%%rip),%%rax; push %%rax; iretq; 1: hlt"); break;
    case SYS_LGDT: PRIVILEGED("lgdt (%%rdi)"); break;
    case SYS_LIDT: PRIVILEGED("lidt (%%rdi)"); break;
    case SYS_LLDT: PRIVILEGED("lldt %%ax"); break;
    case SYS_LTR: PRIVILEGED("ltr %%ax"); break;
    case SYS_CLTS: PRIVILEGED("clts"); break;
    case SYS_INVLPG: PRIVILEGED("invlpg (%%rdi)"); break;
    case SYS_XSETBV: PRIVILEGED("xor %%ecx,%%ecx; xsetbv"); break;
    case SYS_INVD: PRIVILEGED("invd"); break;
    case SYS_STAC: PRIVILEGED(".byte 0x0f,0x01,0xcb"); break;
    case SYS_INT80: PRIVILEGED("int $0x80"); break;
    case SYS_INT1: PRIVILEGED("int $1"); break;
    case SYS_SYSENTER: PRIVILEGED("mov %%rsp,%%rcx; lea 1f(%%rip),%%rdx; sysenter; 1: nop"); break;
    case SYS_FAR_CALL: {
        struct { uint64_t rip; uint16_t cs; } far;
        far.rip = 0x103000;
        far.cs = 8;
        __asm__ volatile("rex.W lcall *%0" : : "m"(far) : "memory");
        break;
    }
    default: break;
    }
    return 0;
}
static uint64_t now_kind, now_arg, now_result;
__attribute__((used)) static void attack_in_handler(void) {
    hook = 0; /* it may lead back to the entry */
    now_result = attack_now((uint32_t)now_kind, now_arg);
}

FN(attack) { /* kind, argument, in the handler? */
    (void)user;
    if (!ARG(2).u32) return hlsnap_call_return(call, hlsnap_u64(attack_now(ARG(0).u32, ARG(1).u64)));
    now_kind = ARG(0).u32, now_arg = ARG(1).u64;
    hook = (uint64_t)(uintptr_t)attack_in_handler;
    sys_call(1);
    hook = 0;
    return hlsnap_call_return(call, hlsnap_u64(now_result));
}
FN(raw) { /* registers: the answer */
    const hlsnap_value v = hlsnap_call_arg(call, 0);
    (void)user;
    if (v.size != sizeof(in)) return hlsnap_call_fail(call, 1, "registers of another size");
    hlsnap__rt_memcpy(&in, v.bytes, sizeof(in));
    sys_raw();
    return hlsnap_call_return(call, hlsnap_u64(left.rax));
}
FN(plain) { /* number: the answer */
    (void)user;
    return hlsnap_call_return(call, hlsnap_u64(sys_call(ARG(0).u64)));
}
FN(many) { /* system calls, one after the other: how many were answered */
    uint64_t i, n = 0;
    (void)user;
    for (i = 0; !ARG(0).u64 || i < ARG(0).u64; i++) n += sys_call(i & 0xfff) == (i & 0xfff) + 0x5ca11;
    return hlsnap_call_return(call, hlsnap_u64(n));
}
FN(last) { /* a system call as the last bytes before a page that is not there */
    (void)call, (void)user;
    sys_last();
    return HLSNAP_OK;
}
static uint64_t base_get(int gs) {
    uint64_t v;
    if (gs) __asm__ volatile("rdgsbase %0" : "=r"(v));
    else __asm__ volatile("rdfsbase %0" : "=r"(v));
    return v;
}
FN(bases) { /* FS and GS base */
    uint64_t v[2];
    (void)user;
    v[0] = base_get(0), v[1] = base_get(1);
    return hlsnap_call_return(call, hlsnap_bytes(v, sizeof(v)));
}
FN(base_set) { /* which, value, how to go on: 0 = return, 1 = leave with nothing answered, 2 = run for ever, 3 = fault */
    const uint64_t v = ARG(1).u64;
    (void)call, (void)user;
    if (ARG(0).u32) __asm__ volatile("wrgsbase %0" : : "r"(v));
    switch (ARG(2).u32 + 4 * !ARG(0).u32) { /* FS is the runtime's: not touched behind it */
    case 0: return HLSNAP_OK;
    case 1: __asm__ volatile("1: outb %%al,$0xe0; jmp 1b" : : "a"(0)); break;
    case 2: __asm__ volatile("1: jmp 1b"); break;
    case 3: __asm__ volatile("ud2"); break;
    case 5: __asm__ volatile("wrfsbase %0; 1: outb %%al,$0xe0; jmp 1b" : : "r"(v), "a"(0)); break;
    case 6: __asm__ volatile("wrfsbase %0; 1: jmp 1b" : : "r"(v)); break;
    default: __asm__ volatile("wrfsbase %0; ud2" : : "r"(v)); break;
    }
    return HLSNAP_OK;
}
FN(selectors) { /* what to load into DS, ES, FS and GS; then a system call; what they hold behind it */
    uint32_t s[4];
    uint64_t answer;
    (void)user;
    __asm__ volatile("mov %0,%%ds; mov %0,%%es; mov %0,%%gs" : : "r"(ARG(0).u32));
    answer = sys_call(7);
    __asm__ volatile("mov %%ds,%0; mov %%es,%1; mov %%gs,%2; mov %%ss,%3" : "=r"(s[0]), "=r"(s[1]), "=r"(s[2]), "=r"(s[3]));
    return answer == 0x5ca11 + 7 ? hlsnap_call_return(call, hlsnap_bytes(s, sizeof(s))) : hlsnap_call_fail(call, 1, "answered wrong");
}
FN(vector_state) { /* loads the first image; saves it to the second; loads it, makes a system call, saves it to the third */
    uint8_t *v = vectors;
    (void)call, (void)user;
    if (ARG(0).b)
        __asm__ volatile("xrstor64 (%0); xsave64 4096(%0); xrstor64 (%0); mov $99,%%eax; syscall; mov $-1,%%eax; xsave64 8192(%0); fninit"
                         : : "r"(v), "a"(-1), "d"(-1) : "rcx", "r11", "memory");
    else
        __asm__ volatile("fxrstor64 (%0); fxsave64 4096(%0); fxrstor64 (%0); mov $99,%%eax; syscall; fxsave64 8192(%0); fninit"
                         : : "r"(v), "a"(-1), "d"(-1) : "rcx", "r11", "memory");
    return HLSNAP_OK;
}
FN(where) {
    sys_where w;
    (void)user;
    w.seen = (uint64_t)(uintptr_t)&seen, w.left = (uint64_t)(uintptr_t)&left, w.entry = (uint64_t)(uintptr_t)sys_entry;
    w.other_entry = (uint64_t)(uintptr_t)sys_other_entry, w.last = (uint64_t)(uintptr_t)sys_last, w.last_end = w.last + 7;
    w.word = (uint64_t)(uintptr_t)&word, w.text = (uint64_t)(uintptr_t)sys_raw, w.rodata = (uint64_t)(uintptr_t)"constant";
    w.data = (uint64_t)(uintptr_t)data, w.bss = (uint64_t)(uintptr_t)hook_stack, w.vectors = (uint64_t)(uintptr_t)vectors;
    w.heap_fn = (uint64_t)(uintptr_t)hlsnap_rt_malloc(64);
    return hlsnap_call_return(call, hlsnap_bytes(&w, sizeof(w)));
}

static const hlsnap_function exports[] = {{"attack", "u64(u32,u64,u32)", attack, NULL}, {"raw", "u64(bytes)", raw, NULL},
    {"plain", "u64(u64)", plain, NULL}, {"many", "u64(u64)", many, NULL}, {"last", "void()", last, NULL}, {"bases", "bytes()", bases, NULL},
    {"base_set", "void(u32,u64,u32)", base_set, NULL}, {"selectors", "bytes(u32)", selectors, NULL},
    {"vectors", "void(bool)", vector_state, NULL}, {"where", "bytes()", where, NULL}};
static const hlsnap_module module = {exports, HLSNAP_COUNT(exports), NULL, 0};
HLSNAP_GUEST_MAIN(module);

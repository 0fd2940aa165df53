/* guest_syscall.h - what test_syscall.c and its guest, guest_syscall.c, agree on. */
#ifndef GUEST_SYSCALL_H
#define GUEST_SYSCALL_H
#include <stdint.h>

/* Argument of the export "attack": done by the program, or in what answers its system call. The second one is an address, or a
   port, where it says so. */
enum sys_attack {
    SYS_READ /* address */, SYS_WRITE /* address */, SYS_JUMP /* address */, SYS_HLT, SYS_CLI, SYS_IN /* port */, SYS_OUT /* port */,
    SYS_OUT16 /* port */, SYS_READ_CR0, SYS_WRITE_CR0, SYS_WRITE_CR3, SYS_WRITE_CR4, SYS_READ_DR7, SYS_WRITE_DR7, SYS_RDMSR /* number */,
    SYS_WRMSR /* number */, SYS_SYSRET, SYS_SYSEXIT, SYS_SWAPGS, SYS_IRET, SYS_LGDT, SYS_LIDT, SYS_LLDT, SYS_LTR, SYS_CLTS, SYS_INVLPG,
    SYS_XSETBV, SYS_INVD, SYS_STAC, SYS_INT80, SYS_INT1, SYS_SYSENTER, SYS_FAR_CALL, SYS_NUM
};

/* How the export "raw" makes its system call. */
enum sys_how {
    SYS_PLAIN,      /* flags, then stack pointer, then SYSCALL */
    SYS_FLAGS,      /* SYSCALL right behind POPF, on the stack as it is */
    SYS_SHADOW,     /* POPF, MOV SS, SYSCALL */
    SYS_SHADOW_MEM  /* the same, MOV SS from memory: where.word */
};

typedef struct sys_regs { /* all that a system call finds and leaves */
    uint64_t rax, rbx, rdx, rsi, rdi, rbp, r8, r9, r10, r12, r13, r14, r15, rsp, flags;
    uint64_t rcx, r11; /* seen: at the entry; left: behind the instruction */
    uint64_t count;    /* seen: entries. in: sys_how */
} sys_regs;

typedef struct sys_where { uint64_t seen, left, entry, other_entry, last, last_end, word, text, rodata, data, bss, vectors, heap_fn; } sys_where;
#define SYS_VECTORS 4096 /* bytes of each of three images: to load, saved without and with a system call in between */
#endif

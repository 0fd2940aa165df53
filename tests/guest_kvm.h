/* guest_kvm.h - what test_kvm.c and its guest, guest_kvm.c, agree on. */
#ifndef GUEST_KVM_H
#define GUEST_KVM_H
#include <stdint.h>

enum fault_kind { /* argument of the export "fault"; the second one is an address or a port where it says so */
    FAULT_DIV, FAULT_UD, FAULT_READ /* address */, FAULT_WRITE /* address */, FAULT_EXEC /* address */, FAULT_STACK, FAULT_RSP,
    FAULT_HLT, FAULT_CLI, FAULT_STI, FAULT_IN /* port */, FAULT_OUT /* port */, FAULT_OUT16 /* port */, FAULT_MOV_CR0,
    FAULT_MOV_CR3, FAULT_LGDT, FAULT_INT3, FAULT_INT_N, FAULT_INT_14, FAULT_ICEBP, FAULT_ALIGN, FAULT_SSE_ALIGN, FAULT_SYSCALL,
    FAULT_SYSENTER, FAULT_RDMSR, FAULT_WRMSR, FAULT_CPUID, FAULT_SWAPGS, FAULT_WRFSBASE /* address */, FAULT_WRGSBASE /* address */,
    FAULT_VMCALL, FAULT_VMMCALL, FAULT_SIMD, FAULT_X87, FAULT_TF, FAULT_GATE, FAULT_IRET, FAULT_NUM
};

enum port_kind { /* argument of the export "port": leaves by the allowed port `port` in a way that is no call */
    PORT_IN8, PORT_IN16, PORT_IN32, PORT_INSB, PORT_REP_INSB, PORT_OUTSB, PORT_REP_OUTSB, PORT_REP_OUTSW, PORT_OUT16, PORT_OUT32,
    PORT_NUM
};

enum odd_kind { /* argument of the export "odd": RFLAGS.TF, a shadow of MOV SS or POP SS, or both, when the guest leaves */
    ODD_TF_OUT, ODD_TF_CALL, ODD_MOVSS_OUT, ODD_MOVSS_CALL, ODD_POPSS_OUT, ODD_TF_MOVSS_OUT, ODD_TF_MOVSS_CALL, ODD_TF_MOVSS_IN,
    ODD_TF_MOVSS_UD, ODD_TF_MOVSS_INT3, ODD_TF_MOVSS_ICEBP, ODD_TF_MOVSS_SYSCALL, ODD_TF_MOVSS_PF, ODD_MOVSS_PF, ODD_TF_LOOP, ODD_NUM
};

enum dirty_bits { /* argument of "dirty" and "leave" */
    DIRTY_X87 = 1, DIRTY_SSE = 2, DIRTY_AVX = 4, DIRTY_AVX512 = 8, DIRTY_MXCSR = 16,
    LEAVE_FLAGS = 32, LEAVE_FSBASE = 64, LEAVE_GSBASE = 128, LEAVE_SEGMENTS = 256, LEAVE_LOOP = 512, LEAVE_CALL = 1024
};

enum system_bits { /* argument of "system": how it makes its system call, and what the entry for it does; DIRTY_x << 8 */
    SYSTEM_FS = 1, SYSTEM_GS = 2, SYSTEM_TF = 4, SYSTEM_SHADOW = 8, SYSTEM_LEAVE = 16, SYSTEM_LOOP = 32, SYSTEM_FAULT = 64, SYSTEM_FLAGS = 128
};

enum pages_kind { /* first argument of the export "pages" */
    PAGES_TOUCH /* address, bytes, stride */, PAGES_NEW /* number */, IMAGE_NEW /* from, bytes */, IMAGE_MAP /* image, to, offset, bytes */, IMAGE_FREE /* image */,
    IMAGE_TURNS /* pages, rounds */, IMAGE_CYCLES /* number */, IMAGE_ASK /* from, to, bytes, options: the request as it is */
};

/* What the probe stores at the guest's first instruction, before any compiled code ran. */
typedef struct probe_dump {
    uint64_t gpr[16];          /* rax rcx rdx rbx rsp rbp rsi rdi r8 .. r15 */
    uint64_t flags, fs0;       /* fs0 is what %fs:0 holds: the thread control block's own address */
    uint64_t segments[6];      /* ds es fs gs ss cs */
    uint64_t magic, padding[7];
    uint8_t xsave[12288];      /* standard form, every component the CPU will give */
} probe_dump;
#define PROBE_MAGIC 0x65626f7270ull

typedef struct guest_addresses { uint64_t probe, dump, xsave_flag, text, rodata, data, bss, tls, heap, stack; } guest_addresses;
#endif

/* guest_isolation.h - what test_isolation.c and its guest, guest_isolation.c, agree on: the tables of hostile code, and how one
   attack is ordered. */
#ifndef GUEST_ISOLATION_H
#define GUEST_ISOLATION_H
#include <stdint.h>

#define ISO_SCRATCH 16384 /* bytes of the writable area that attacks use; as many lie behind it */
#define ISO_NUM_DISTURB 4

/* What the guest's first instructions store, at every entry, before compiled code runs. */
typedef struct iso_dump {
    uint64_t gpr[16];                  /* rax rcx rdx rbx rsp rbp rsi rdi r8 .. r15 */
    uint64_t flags, fs0;               /* fs0: what %fs:0 holds, the thread control block's own address */
    uint64_t segments[6];              /* ds es fs gs ss cs */
    uint64_t fsbase, gsbase, pkru;     /* 0 where the guest cannot read them */
    uint64_t entries;                  /* counts up */
    uint8_t fpu[32];                   /* FNSTENV: shows x87 pointers that XSAVE leaves out on some CPUs */
    uint8_t padding[256];
    uint8_t xsave[12288];              /* standard form, every component that the CPU will give */
} iso_dump;
typedef char iso_dump_size[sizeof(iso_dump) == 512 + 12288 ? 1 : -1];

enum iso_has { ISO_HAS_XSAVE = 1, ISO_HAS_FSGSBASE = 2, ISO_HAS_PKRU = 4 }; /* what the entry may use: the host finds out */

typedef struct iso_where { uint64_t dump, has, scratch, bss, bss_size, text, rodata, stack, code32, code32_size; } iso_where;

enum iso_how { ISO_PLAIN, ISO_SHADOW /* MOV SS right before it */, ISO_TF_SHADOW /* POPF that sets TF, MOV SS, then it */, ISO_NUM_HOW };

typedef struct iso_order {             /* the argument of the export "attack" */
    uint32_t disturb[ISO_NUM_DISTURB]; /* 1 + index in ISO_DISTURBS; 0 = none */
    uint32_t ending, how;              /* index in ISO_ENDINGS; iso_how */
    uint32_t reply, count;             /* reply: a proper result stands in the mailbox by then; count: rcx */
    uint64_t arg;                      /* of the disturbs; rax and rbx at the ending */
    uint64_t rflags, rsp, rip;         /* at the ending; rsp 0 = a good one. rip: of the frame that returns and far jumps take,
                                          0 = a proper OUT */
    uint32_t cs, ss, port, padding;    /* cs, ss: of that frame, 0 = the right ones; port: rdx */
} iso_order;

/* X(name, every, assembly): taken one time in `every`. rdi = the argument, rsi = the scratch area; a RET follows; all registers but
   rsp may change. What the CPU does not have ends in #UD, which is as good an ending as any. */
#define ISO_DISTURBS(X) \
    X(x87_fill, 1, "fninit; fld1; fldpi; fldl2e; fldl2t; fldlg2; fldln2; fldpi; fld1") \
    X(x87_flags, 1, "fninit; movw $0x0c7f,(%rsi); fldcw (%rsi); fldz; fld1; fdivp; fldz; fsqrt; fld1; fchs; fsqrt") \
    X(x87_pending, 2, "fninit; movw $0x0340,(%rsi); fldcw (%rsi); fld1; fldz; fdivrp %st,%st(1)") \
    X(x87_env, 1, "fnstenv (%rsi); movl $0x41424344,12(%rsi); movl $0x07ff07ff,16(%rsi); movl $0x45464748,20(%rsi); fldenv (%rsi)") \
    X(x87_frstor, 2, "fld1; fnsave (%rsi); movl $0x55667788,12(%rsi); frstor (%rsi)") \
    X(mmx, 1, "movq %rdi,%mm0; movq %mm0,%mm1; pxor %mm2,%mm2; paddb %mm0,%mm2; movq %mm0,%mm5; movq %mm1,%mm7") \
    X(emms, 3, "movq %rdi,%mm3; emms") \
    X(sse, 1, "movq %rdi,%xmm0; pshufd $0x44,%xmm0,%xmm0; movaps %xmm0,%xmm1; movaps %xmm0,%xmm2; movaps %xmm0,%xmm3; movaps %xmm0,%xmm4;" \
              "movaps %xmm0,%xmm5; movaps %xmm0,%xmm6; movaps %xmm0,%xmm7; movaps %xmm0,%xmm8; movaps %xmm0,%xmm9; movaps %xmm0,%xmm10;" \
              "movaps %xmm0,%xmm11; movaps %xmm0,%xmm12; movaps %xmm0,%xmm13; movaps %xmm0,%xmm14; movaps %xmm0,%xmm15") \
    X(mxcsr, 1, "mov %edi,%eax; and $0xffbf,%eax; mov %eax,(%rsi); ldmxcsr (%rsi)") \
    X(mxcsr_unmasked, 2, "movl $0x3f,(%rsi); ldmxcsr (%rsi)") \
    X(mxcsr_reserved, 4, "movl $-1,(%rsi); ldmxcsr (%rsi)") \
    X(sse_exception, 2, "xorps %xmm0,%xmm0; sqrtpd iso_minus(%rip),%xmm1; divpd %xmm0,%xmm1; cvtpd2dq %xmm1,%xmm2") \
    X(sse_text, 4, "pcmpistri $0,%xmm1,%xmm2; crc32q %rdi,%rax; popcnt %rdi,%rax; movntdqa (%rsi),%xmm3; maskmovdqu %xmm1,%xmm2") \
    X(avx, 1, "vmovq %rdi,%xmm0; vpbroadcastq %xmm0,%ymm0; vmovdqa %ymm0,%ymm1; vmovdqa %ymm0,%ymm2; vmovdqa %ymm0,%ymm3;" \
              "vmovdqa %ymm0,%ymm7; vmovdqa %ymm0,%ymm8; vmovdqa %ymm0,%ymm9; vmovdqa %ymm0,%ymm12; vmovdqa %ymm0,%ymm15") \
    X(avx_zero, 3, "vzeroall") \
    X(avx_upper, 3, "vzeroupper") \
    X(avx_gather, 3, "vpcmpeqd %ymm1,%ymm1,%ymm1; vpxor %xmm2,%xmm2,%xmm2; vpgatherdd %ymm1,(%rsi,%ymm2,1),%ymm3; vmaskmovps (%rsi),%ymm1,%ymm4") \
    X(fma_aes, 3, "vfmadd213pd %ymm1,%ymm2,%ymm3; vcvtph2ps %xmm3,%ymm5; aesenc %xmm1,%xmm2; pclmulqdq $1,%xmm1,%xmm2") \
    X(sha_gfni, 3, "sha256msg1 %xmm1,%xmm2; sha1nexte %xmm2,%xmm3; gf2p8mulb %xmm1,%xmm5") \
    X(avx512, 1, "vpbroadcastq %rdi,%zmm0; vmovdqa64 %zmm0,%zmm1; vmovdqa64 %zmm0,%zmm5; vmovdqa64 %zmm0,%zmm15; vmovdqa64 %zmm0,%zmm16;" \
                 "vmovdqa64 %zmm0,%zmm17; vmovdqa64 %zmm0,%zmm23; vmovdqa64 %zmm0,%zmm29; vmovdqa64 %zmm0,%zmm31") \
    X(avx512_masks, 1, "kmovq %rdi,%k0; kmovq %rdi,%k1; kmovq %rdi,%k3; kmovq %rdi,%k5; kmovq %rdi,%k7; vpcmpeqd %zmm0,%zmm0,%k2; kmovw %edi,%k6") \
    X(avx512_more, 3, "kmovw %edi,%k1; vpcompressd %zmm1,(%rsi){%k1}; vpexpandd (%rsi),%zmm30{%k1}; vpopcntd %zmm30,%zmm20; vdivpd %zmm1,%zmm2,%zmm18") \
    X(amx, 6, "movq $0,(%rsi); movq $0,8(%rsi); movq $0,16(%rsi); movq $0,24(%rsi); movq $0,32(%rsi); movq $0,40(%rsi); movq $0,48(%rsi);" \
              "movq $0,56(%rsi); movb $1,(%rsi); movb $8,48(%rsi); movw $16,16(%rsi); ldtilecfg (%rsi); tilezero %tmm0") \
    X(fxrstor, 2, "fxsave64 (%rsi); mov %rdi,32(%rsi); mov %rdi,160(%rsi); mov %rdi,256(%rsi); mov %edi,16(%rsi); fxrstor64 (%rsi)") \
    X(xrstor, 1, "mov $0xe7,%eax; xor %edx,%edx; xsave64 (%rsi); mov %rdi,32(%rsi); mov %rdi,160(%rsi); mov %rdi,304(%rsi); mov %rdi,8(%rsi);" \
                 "mov %rdi,16(%rsi); mov %rdi,576(%rsi); orq $7,512(%rsi); xrstor64 (%rsi)") \
    X(xrstor_part, 2, "mov %edi,%eax; and $0xe7,%eax; xor %edx,%edx; xsavec64 (%rsi); mov %rdi,160(%rsi); mov %rdi,576(%rsi); xrstor64 (%rsi)") \
    X(xrstor_misaligned, 60, "mov $7,%eax; xor %edx,%edx; xrstor64 1(%rsi)") \
    X(xrstor_reserved, 60, "mov $7,%eax; xor %edx,%edx; xsave64 (%rsi); movq $-1,520(%rsi); movq $-1,528(%rsi); xrstor64 (%rsi)") \
    X(xsaveopt, 3, "mov $-1,%eax; mov %eax,%edx; xsaveopt64 (%rsi)") \
    X(xsaves, 6, "mov $7,%eax; xor %edx,%edx; xsaves64 (%rsi)") \
    X(xrstors, 60, "mov $7,%eax; xor %edx,%edx; xrstors64 (%rsi)") \
    X(xgetbv, 3, "xor %ecx,%ecx; xgetbv") \
    X(xgetbv_one, 30, "mov $1,%ecx; xgetbv") \
    X(xgetbv_bad, 60, "mov %edi,%ecx; xgetbv") \
    X(xsetbv, 6, "xor %ecx,%ecx; mov $1,%eax; xor %edx,%edx; xsetbv") \
    X(wrfsbase, 2, "wrfsbase %rdi") \
    X(wrfsbase_32, 4, "wrfsbase %edi") \
    X(wrgsbase, 1, "wrgsbase %rdi") \
    X(rdgsbase, 4, "rdfsbase %rax; rdgsbase %rax") \
    X(swapgs, 6, "swapgs") \
    X(ds_null, 2, "xor %eax,%eax; mov %eax,%ds; mov %eax,%es") \
    X(ds_any, 3, "mov %edi,%ds") \
    X(es_any, 3, "mov %edi,%es") \
    X(fs_any, 3, "mov %edi,%fs") \
    X(gs_any, 3, "mov %edi,%gs") \
    X(gs_null, 2, "xor %eax,%eax; mov %eax,%gs") \
    X(fs_null, 4, "xor %eax,%eax; mov %eax,%fs") \
    X(push_pop_fs, 4, "push %fs; pop %gs; push %gs; pop %fs") \
    X(lfs_lgs, 3, "mov %ss,4(%rsi); movl $0x1234,(%rsi); lgs (%rsi),%eax; lfs (%rsi),%ecx") \
    X(lss, 4, "mov %rsp,(%rsi); mov %ss,8(%rsi); .byte 0x48,0x0f,0xb2,0x26") \
    X(lar_lsl, 4, "lar %edi,%eax; lsl %edi,%eax; verr %di; verw %di") \
    X(wrpkru, 2, "xor %ecx,%ecx; mov %edi,%eax; and $-16,%eax; xor %edx,%edx; wrpkru") \
    X(wrpkru_all, 8, "xor %ecx,%ecx; mov $-1,%eax; xor %edx,%edx; wrpkru") \
    X(rdpkru, 6, "xor %ecx,%ecx; rdpkru") \
    X(flags_df, 2, "std; lea 4096(%rsi),%rdi; mov $256,%ecx; rep stosb") \
    X(flags_ac, 2, "pushfq; orl $0x40000,(%rsp); popfq") \
    X(flags_id, 3, "pushfq; orl $0x200000,(%rsp); popfq; pushfq; pop %rax") \
    X(flags_nt, 3, "pushfq; orl $0x4000,(%rsp); popfq") \
    X(flags_iopl, 3, "pushfq; orl $0x3000,(%rsp); popfq; pushfq; pop %rax") \
    X(flags_rf_vm, 3, "pushfq; orl $0x1b0000,(%rsp); popfq") \
    X(flags_if_off, 3, "pushfq; andl $~0x200,(%rsp); popfq") \
    X(clflush, 3, "clflush (%rsi); mfence; prefetcht0 (%rsi); prefetchw (%rsi)") \
    X(clflushopt, 5, "clflushopt (%rsi); clwb 64(%rsi); sfence") \
    X(clflush_text, 5, "clflush iso_entry(%rip); prefetchnta iso_entry(%rip)") \
    X(clzero, 5, "mov %rsi,%rax; clzero") \
    X(cldemote, 5, "cldemote (%rsi)") \
    X(rdtsc, 3, "rdtsc; lfence; rdtscp") \
    X(rdpid, 4, "rdpid %rax") \
    X(rdrand, 4, "rdrand %rax; rdseed %rcx") \
    X(cpuid, 4, "mov %edi,%eax; xor %ecx,%ecx; cpuid") \
    X(rdpmc, 6, "xor %ecx,%ecx; rdpmc") \
    X(umonitor, 5, "umonitor %rsi") \
    X(umwait, 5, "umonitor %rsi; xor %eax,%eax; xor %edx,%edx; xor %ecx,%ecx; umwait %ecx") \
    X(tpause, 5, "xor %eax,%eax; xor %edx,%edx; xor %ecx,%ecx; tpause %ecx") \
    X(monitorx, 5, "mov %rsi,%rax; xor %ecx,%ecx; xor %edx,%edx; monitorx") \
    X(transaction, 4, "xbegin 1f; movl $1,(%rsi); xend; 1: nop") \
    X(transaction_open, 5, "xbegin 1f; movl $1,(%rsi); xabort $7; 1: nop") \
    X(ptwrite, 8, "ptwrite %rdi") \
    X(movdir, 5, "movdiri %rdi,(%rsi); lea 64(%rsi),%rax; movdir64b (%rsi),%rax") \
    X(enqcmd, 8, "mov %rsi,%rax; enqcmd (%rsi),%rax") \
    X(shadow_stack, 5, "rdsspq %rax; mov $1,%eax; incsspq %rax; endbr64") \
    X(shadow_stack_write, 8, "wrssq %rdi,(%rsi)") \
    X(user_interrupts, 8, "clui; stui; testui") \
    X(serialize, 5, "serialize") \
    X(descriptor_tables, 4, "sgdt (%rsi); sidt 16(%rsi); sldt %eax; str %eax; smsw %eax") \
    X(lock_all, 3, "lock incl (%rsi); lock xaddq %rax,8(%rsi); lock cmpxchg16b 16(%rsi); lock btsq $3,32(%rsi); xchg %rdi,40(%rsi)") \
    X(lock_split, 30, "lock incl 62(%rsi); lock incl 4094(%rsi); xchg %edi,8190(%rsi)") \
    X(lock_bad, 6, ".byte 0xf0,0x0f,0xc7,0xc8") \
    X(strings, 2, "cld; lea 8192(%rsi),%rdi; mov $4096,%ecx; rep movsb; mov $0x5a,%eax; mov $2048,%ecx; rep stosl") \
    X(stack_frames, 3, "enter $64,$3; leave; push %rdi; popq (%rsi)") \
    X(bmi, 4, "pdep %rdi,%rsi,%rax; bextr %rdi,%rsi,%rax; rorx $3,%rdi,%rax; adcx %rdi,%rax; sahf; lahf; cmc; stc")

/* X(name, every, assembly): the first instruction is the one that leaves, or tries to. rax = rbx = the argument, rcx = count,
   rdx = port, rsi = rdi = the scratch area, on the stack the frame (rip, cs, rflags, rsp, ss), r10 = the gate's image. */
#define ISO_ENDINGS(X) \
    X(out_return, 1, "out %al,$0xe0") X(out_call, 2, "out %al,$0xe1") X(out_dx, 2, "out %al,%dx") X(out16, 3, "out %ax,$0xe0") \
    X(out32, 3, "out %eax,$0xe0") X(out16_call, 4, "out %ax,$0xe1") X(out_denied, 3, "out %al,$0x80") X(out_stub, 3, "out %al,$0x2e") \
    X(out_pic, 6, "out %al,$0x20") X(in8, 2, "in $0xe0,%al") X(in_call, 3, "in $0xe1,%al") X(in16, 4, "in $0xe0,%ax") \
    X(in32, 4, "in $0xe0,%eax") X(in_dx, 3, "in %dx,%al") X(in_denied, 4, "in $0x60,%al") X(insb, 3, "insb") X(insl, 4, "insl") \
    X(rep_insb, 3, "rep insb") X(rep_insw, 4, "rep insw") X(outsb, 3, "outsb") X(outsl, 4, "outsl") X(rep_outsb, 3, "rep outsb") \
    X(rep_outsl, 4, "rep outsl") \
    X(ud2, 1, "ud2") X(ud1, 4, "ud1 %eax,%eax") X(ud0, 4, ".byte 0x0f,0xff,0xc0") X(hlt, 3, "hlt") X(cli, 3, "cli") X(sti, 3, "sti") \
    X(int3, 1, "int3") X(int3_long, 3, ".byte 0xcd,3") X(icebp, 2, ".byte 0xf1") X(into, 2, "int $4") X(int0, 4, "int $0") X(int1, 4, "int $1") \
    X(int2, 4, "int $2") X(int8, 4, "int $8") X(int13, 4, "int $13") X(int14, 4, "int $14") X(int32, 4, "int $32") X(int80, 4, "int $0x80") \
    X(int255, 4, "int $255") X(syscall, 1, "syscall") X(sysenter, 2, "sysenter") X(sysret, 4, "sysretq") X(sysexit, 4, "sysexitq") \
    X(ret, 2, "ret") X(ret_pop, 4, "ret $16") X(lret, 2, "lretq") X(lret32, 4, "lretl") X(iret, 2, "iretq") X(iret32, 4, "iretl") \
    X(far_jump, 2, ".byte 0x48,0xff,0x2d; .long iso_far - . - 4") X(far_call, 3, ".byte 0x48,0xff,0x1d; .long iso_far - . - 4") \
    X(divide, 1, "divb iso_zero(%rip)") X(divide_overflow, 4, "divb iso_one(%rip)") X(read_null, 2, "movl 0,%eax") X(read, 2, "mov (%rbx),%eax") \
    X(write, 2, "mov %eax,(%rbx)") X(update, 3, "lock incl (%rbx)") X(exec, 1, "jmp *%rbx") X(exec_call, 3, "call *%rbx") \
    X(exec_writable, 2, "jmp *%rsi") X(write_text, 3, "mov %eax,iso_entry(%rip)") X(write_rodata, 3, "mov %eax,iso_minus(%rip)") \
    X(write_identity, 3, "mov %rax,%fs:0") X(read_gs, 3, "mov %gs:0,%rax") X(x87_read, 3, "fldl (%rbx)") X(avx_read, 3, "vmovups (%rbx),%ymm3") \
    X(push, 2, "push %rax") X(pop, 3, "popq (%rbx)") X(call, 3, "call 1f; 1: pop %rax") X(enter, 3, "enter $4096,$31") X(leave, 3, "leave") \
    X(align_check, 2, "mov 1(%rsi),%eax") X(align_sse, 2, "movaps 1(%rsi),%xmm0") X(simd, 2, "sqrtpd iso_minus(%rip),%xmm0") X(fwait, 2, "fwait") \
    X(x87_arith, 3, "fsqrt") X(ss_any, 3, "mov %ebx,%ss") X(ds_any, 4, "mov %ebx,%ds") X(fs_any, 4, "mov %ebx,%fs") \
    X(loop, 12, "1: jmp 1b") X(loop_pause, 16, "1: pause; incl (%rsi); jmp 1b") X(loop_cpuid, 24, "1: cpuid; jmp 1b") \
    X(loop_vector, 16, "1: addps %xmm1,%xmm2; fnop; jmp 1b") X(rep_stos, 4, "rep stosq") X(rep_movs_end, 4, "mov $-1,%rcx; rep movsb") \
    X(vmcall, 3, "vmcall") X(vmmcall, 3, "vmmcall") X(vmfunc, 5, "vmfunc") X(vmrun, 5, "vmrun") X(vmptrld, 5, "vmptrld (%rsi)") \
    X(invlpg, 5, "invlpg (%rsi)") X(invpcid, 5, "invpcid (%rsi),%rax") X(wbinvd, 5, "wbinvd") X(invd, 6, "invd") X(lgdt, 5, "lgdt (%rsi)") \
    X(lidt, 5, "lidt (%rsi)") X(lldt, 5, "lldt %ax") X(ltr, 5, "ltr %ax") X(lmsw, 5, "lmsw %ax") X(clts, 5, "clts") \
    X(mov_to_cr0, 5, "mov %rax,%cr0") X(mov_from_cr3, 5, "mov %cr3,%rax") X(mov_to_cr4, 5, "mov %rax,%cr4") X(mov_to_cr8, 5, "mov %rax,%cr8") \
    X(mov_to_dr7, 5, "mov %rax,%db7") X(mov_from_dr0, 5, "mov %db0,%rax") X(rdmsr, 5, "rdmsr") X(wrmsr, 5, "wrmsr") X(rdpmc, 5, "rdpmc") \
    X(monitor, 5, "monitor") X(mwait, 5, "mwait") X(rsm, 5, "rsm") X(getsec, 5, "getsec") X(skinit, 6, "skinit") X(stgi, 6, "stgi") \
    X(enclu, 6, ".byte 0x0f,0x01,0xd7") X(encls, 6, ".byte 0x0f,0x01,0xcf") X(pconfig, 6, ".byte 0x0f,0x01,0xc5") X(xsetbv, 5, "xsetbv")

#define ISO_COUNT(name, every, text) +1
enum { ISO_NUM_DISTURBS = 0 ISO_DISTURBS(ISO_COUNT), ISO_NUM_ENDINGS = 0 ISO_ENDINGS(ISO_COUNT) };
#endif

/* guest_isolation.c - the guest of test_isolation.c: it attacks as it is ordered to, and shows what it finds at its entry.
   cc: cc -O2 -DHLSNAP_GUEST -ffreestanding -nostdlib -static -Wl,-e,iso_entry -I.. guest_isolation.c -o guest_isolation.elf
   With system calls, whose entry answers at once: the same with -DGUEST_SYSCALL, guest_isolation_syscall.elf.
   As a Linux program: musl-gcc -O2 -static -DHLSNAP_GUEST_LIBC -I.. guest_isolation.c -o guest_isolation_libc.elf */
#define HLSNAP_IMPLEMENTATION
#include "hlsnap.h"
#include "guest_isolation.h"

#define ASM_NAME(name) __asm__(name) __attribute__((used, aligned(64)))
#define FN(name) static hlsnap_result name(hlsnap_call *call, void *user)

static iso_dump dump ASM_NAME("iso_dump") __attribute__((aligned(4096)));
static uint8_t has ASM_NAME("iso_has") = 0;
static uint8_t entry_stack[64] ASM_NAME("iso_entry_stack");
static uint8_t scratch[2 * ISO_SCRATCH] ASM_NAME("iso_scratch") __attribute__((aligned(4096)));
static uint8_t pages[24 * 4096] __attribute__((aligned(4096)));
static uint8_t data_pages[2 * 4096] __attribute__((aligned(4096))) = {1, 2, 3};

#ifdef GUEST_SYSCALL /* which have no thread storage of ours */
#define TLS_WORD " xor %eax,%eax\n"
__asm__(".pushsection .note.hlsnap,\"a\",@note\n.p2align 2\n.long 7, 16, 2\n.asciz \"hlsnap\"\n.p2align 2\n"
        "8: .quad iso_entry - 8b\n9: .quad iso_system_entry - 9b\n.popsection\n"
        ".text\n.p2align 4\niso_system_entry:\n jmp *%rcx\n");
#define REAL_ENTRY "_start"
#elif defined(HLSNAP_GUEST_LIBC) /* the last note counts; behind this entry comes the personality's */
#define TLS_WORD " xor %eax,%eax\n"
__asm__(".pushsection .note.hlsnap,\"a\",@note\n.p2align 2\n.long 7, 16, 2\n.asciz \"hlsnap\"\n.p2align 2\n"
        "8: .quad iso_entry - 8b\n9: .quad hlsnap__lx_syscall - 9b\n.popsection\n");
#define REAL_ENTRY "hlsnap__lx_entry"
#else
#define REAL_ENTRY "_start"
#define TLS_WORD " mov %fs:0,%rax\n"
#endif

/* ---- the entry: stores every register; then answers export 0 itself, so that nothing else touches the vCPU, or starts the runtime ---- */

void iso_entry(void);
__asm__(".text\n.globl iso_entry\n.type iso_entry,@function\niso_entry:\n"
        "mov %rax,iso_dump(%rip)\n mov %rcx,iso_dump+8(%rip)\n mov %rdx,iso_dump+16(%rip)\n mov %rbx,iso_dump+24(%rip)\n"
        "mov %rsp,iso_dump+32(%rip)\n mov %rbp,iso_dump+40(%rip)\n mov %rsi,iso_dump+48(%rip)\n mov %rdi,iso_dump+56(%rip)\n"
        "mov %r8,iso_dump+64(%rip)\n mov %r9,iso_dump+72(%rip)\n mov %r10,iso_dump+80(%rip)\n mov %r11,iso_dump+88(%rip)\n"
        "mov %r12,iso_dump+96(%rip)\n mov %r13,iso_dump+104(%rip)\n mov %r14,iso_dump+112(%rip)\n mov %r15,iso_dump+120(%rip)\n"
        "lea iso_entry_stack+64(%rip),%rsp\n pushfq\n popq iso_dump+128(%rip)\n" TLS_WORD " mov %rax,iso_dump+136(%rip)\n xor %eax,%eax\n"
        "mov %ds,%eax\n mov %rax,iso_dump+144(%rip)\n mov %es,%eax\n mov %rax,iso_dump+152(%rip)\n mov %fs,%eax\n mov %rax,iso_dump+160(%rip)\n"
        "mov %gs,%eax\n mov %rax,iso_dump+168(%rip)\n mov %ss,%eax\n mov %rax,iso_dump+176(%rip)\n mov %cs,%eax\n mov %rax,iso_dump+184(%rip)\n"
        "testb $2,iso_has(%rip)\n jz 1f\n rdfsbase %rax\n mov %rax,iso_dump+192(%rip)\n rdgsbase %rax\n mov %rax,iso_dump+200(%rip)\n"
        "1: testb $4,iso_has(%rip)\n jz 2f\n xor %ecx,%ecx\n rdpkru\n mov %rax,iso_dump+208(%rip)\n"
        "2: testb $1,iso_has(%rip)\n jz 3f\n mov $-1,%eax\n mov %eax,%edx\n xsave64 iso_dump+512(%rip)\n jmp 4f\n"
        "3: fxsave64 iso_dump+512(%rip)\n"
        "4: fnstenv iso_dump+224(%rip)\n incq iso_dump+216(%rip)\n mov iso_dump+32(%rip),%rsp\n"
        "cmpl $2,12(%rdi)\n jne " REAL_ENTRY "\n mov 16(%rdi),%eax\n cmpl $0,4(%rdi,%rax)\n jne " REAL_ENTRY "\n" /* op = call, in_offset, function */
        "mov 24(%rdi),%ebx\n add %rdi,%rbx\n movl $16,(%rbx)\n movl $0,4(%rbx)\n movq $0,8(%rbx)\n movl $1,40(%rdi)\n" /* the result */
        "xor %ebx,%ebx\n xor %eax,%eax\n xor %ecx,%ecx\n xor %edx,%edx\n 5: out %al,$0xe0\n jmp 5b\n");
FN(probe) { /* the entry's */
    (void)call;
    (void)user;
    return HLSNAP_OK;
}

/* ---- the attacks ---- */

typedef struct iso_plan {
    uint64_t disturb[ISO_NUM_DISTURB], ending, arg, rflags, rsp, count, port, tf, rip, cs, ss;
} iso_plan;
static iso_plan plan ASM_NAME("iso_plan");
static struct { uint64_t rip; uint16_t cs; } far ASM_NAME("iso_far");

#define DISTURB_CODE(name, every, text) ".p2align 4\niso_disturb_" #name ":\n" text "\nret\n"
#define DISTURB_ROW(name, every, text) ".quad iso_disturb_" #name "\n"
#define ENDING_CODE(name, every, text) \
    ".p2align 4\niso_plain_" #name ":\n" text "\njmp iso_out\n" \
    ".p2align 4\niso_shadow_" #name ":\nmov %r11d,%ss\n" text "\njmp iso_out\n" \
    ".p2align 4\niso_tf_" #name ":\npopfq\nmov %r11d,%ss\n" text "\njmp iso_out\n"
#define ENDING_ROW(name, every, text) ".quad iso_plain_" #name ",iso_shadow_" #name ",iso_tf_" #name "\n"

__asm__(".text\n" ISO_DISTURBS(DISTURB_CODE) ISO_ENDINGS(ENDING_CODE)
        ".p2align 4\niso_out: xor %eax,%eax\n out %al,$0xe0\n jmp iso_out\n"
        /* where a 32-bit code segment can be had: POP SS and the instructions that 64-bit mode lost, 16 bytes each */
        ".p2align 4\niso_code32:\n.code32\n out %al,$0xe0\n ud2\n.p2align 4\n push %ss\n pop %ss\n out %al,$0xe0\n.p2align 4\n"
        "pushf\n orl $0x100,(%esp)\n popf\n push %ss\n pop %ss\n out %al,$0xe0\n.p2align 4\n push %ss\n pop %ss\n in $0xe0,%al\n.p2align 4\n"
        "bound %eax,(%esi)\n.p2align 4\n into\n int3\n.p2align 4\n sysenter\n.p2align 4\n int $0x80\n.p2align 4\n syscall\n.p2align 4\n"
        "aam $0\n daa\n arpl %ax,(%esi)\n.p2align 4\n push %ds\n pop %es\n lds (%esi),%eax\n.p2align 4\n 1: jmp 1b\n.p2align 4\n ljmp $0x33,$0\n"
        ".p2align 4\n pushf\n orl $0x100,(%esp)\n popf\n push %ss\n pop %ss\n ud2\n.p2align 4\niso_code32_end:\n.code64\n"
        ".section .rodata\n.p2align 4\niso_disturb_rows: " ISO_DISTURBS(DISTURB_ROW) "iso_ending_rows: " ISO_ENDINGS(ENDING_ROW)
        ".p2align 4\niso_minus: .double -1.0,-2.0\niso_zero: .quad 0\niso_one: .quad 1\n.text\n");
extern const uint64_t iso_disturb_rows[], iso_ending_rows[];
extern const uint8_t iso_code32[], iso_code32_end[];
extern const double iso_minus[];

/* Runs the plan: disturbs; the frame; flags, stack, a secret in every register; the ending. */
__attribute__((noreturn)) void iso_go(void);
__asm__(".text\niso_go:\n"
        "mov iso_plan(%rip),%rax\n call 9f\n mov iso_plan+8(%rip),%rax\n call 9f\n mov iso_plan+16(%rip),%rax\n call 9f\n"
        "mov iso_plan+24(%rip),%rax\n call 9f\n cld\n"
        "mov %ss,%r11d\n mov %cs,%r12d\n mov iso_plan+96(%rip),%rax\n test %rax,%rax\n cmovz %r12,%rax\n mov iso_plan+104(%rip),%rbx\n"
        "test %rbx,%rbx\n cmovz %r11,%rbx\n mov iso_plan+88(%rip),%rcx\n lea iso_out(%rip),%rdx\n test %rcx,%rcx\n cmovz %rdx,%rcx\n"
        "mov %rcx,iso_far(%rip)\n mov %ax,iso_far+8(%rip)\n"
        "mov %rsp,%rdx\n push %rbx\n push %rdx\n pushq iso_plan+48(%rip)\n push %rax\n push %rcx\n mov %rsp,%r12\n"
        "pushq iso_plan+48(%rip)\n cmpq $0,iso_plan+80(%rip)\n cmovne %rsp,%r12\n"
        "mov iso_plan+56(%rip),%rax\n test %rax,%rax\n cmovnz %rax,%r12\n"
        "cmpq $0,iso_plan+80(%rip)\n jne 1f\n popfq\n"
        "1: mov %r12,%rsp\n mov iso_plan+40(%rip),%rbx\n mov iso_plan+64(%rip),%rcx\n mov iso_plan+72(%rip),%rdx\n"
        "lea iso_scratch(%rip),%rsi\n mov %rsi,%rdi\n mov %rbx,%rax\n mov %rbx,%rbp\n mov %rbx,%r8\n mov %rbx,%r9\n mov $0x104000,%r10d\n"
        "mov %rbx,%r12\n mov %rbx,%r13\n mov %rbx,%r14\n mov %rbx,%r15\n jmp *iso_plan+32(%rip)\n"
        "9: test %rax,%rax\n jz 1f\n mov iso_plan+40(%rip),%rdi\n lea iso_scratch(%rip),%rsi\n jmp *%rax\n 1: ret\n");

FN(attack) {
    hlsnap_value v = hlsnap_call_arg(call, 0);
    iso_order o;
    uint32_t i;
    (void)user;
    if (v.size != sizeof(o)) return hlsnap_call_fail(call, 1, "an order of another size");
    hlsnap__rt_memcpy(&o, v.bytes, sizeof(o));
    for (i = 0; i < ISO_NUM_DISTURB; i++) plan.disturb[i] = o.disturb[i] - 1 < ISO_NUM_DISTURBS ? iso_disturb_rows[o.disturb[i] - 1] : 0;
    plan.ending = iso_ending_rows[o.ending % ISO_NUM_ENDINGS * 3 + o.how % ISO_NUM_HOW];
    plan.tf = o.how == ISO_TF_SHADOW;
    plan.arg = o.arg, plan.rflags = o.rflags, plan.rsp = o.rsp, plan.count = o.count, plan.port = o.port;
    plan.rip = o.rip, plan.cs = o.cs, plan.ss = o.ss;
    if (o.reply) {
        hlsnap_abi_message head;
        head.size = sizeof(head), head.function = call->function, head.status = HLSNAP_ABI_STATUS_OK, head.num_values = 0;
        hlsnap__rt_memcpy(call->out, &head, sizeof(head));
        hlsnap__rt_mailbox()->num_done = 1;
        hlsnap__rt_state_get()->call = NULL;
    }
    iso_go();
}

/* ---- ordinary things, so that there is something to find ---- */

FN(scribble) { /* gva, bytes, step, seed; 0 = zeros */
    const uint64_t n = hlsnap_call_arg(call, 1).as.u64, step = hlsnap_call_arg(call, 2).as.u64;
    volatile uint8_t *to = (volatile uint8_t *)(uintptr_t)hlsnap_call_arg(call, 0).as.u64;
    uint64_t i, x = hlsnap_call_arg(call, 3).as.u64;
    const uint8_t keep = x ? 0xff : 0;
    (void)user;
    for (i = 0; i < n; i += step) x = x * 6364136223846793005ull + 1, to[i] = (uint8_t)(x >> 56) & keep;
    return HLSNAP_OK;
}
FN(peek) { /* gva, bytes: their sum */
    const uint64_t n = hlsnap_call_arg(call, 1).as.u64;
    const volatile uint8_t *from = (const volatile uint8_t *)(uintptr_t)hlsnap_call_arg(call, 0).as.u64;
    uint64_t i, sum = 0;
    (void)user;
    for (i = 0; i < n; i++) sum += from[i];
    return hlsnap_call_return(call, hlsnap_u64(sum));
}
FN(work) { /* heap blocks kept and freed, random bytes, text, a host call for every fourth */
    const uint32_t n = hlsnap_call_arg(call, 0).as.u32;
    static uint8_t *kept[64];
    uint32_t i;
    (void)user;
    for (i = 0; i < n; i++) {
        hlsnap_value v = hlsnap_u64(i), out;
        uint8_t *p = (uint8_t *)hlsnap_rt_malloc(64 + i * 37);
        if (!p) break;
        hlsnap_rt_random(p, 32);
        hlsnap_rt_snprintf((char *)p + 32, 32, "%u %f", i, (double)i / 3);
        hlsnap_rt_free(kept[i % 64]);
        kept[i % 64] = p;
        if (i % 4 == 3 && hlsnap_rt_call("host_thing", &v, 1, &out, NULL)) return hlsnap_call_fail(call, 2, "host");
    }
    return hlsnap_call_return(call, hlsnap_bytes(kept[0], 64));
}
FN(where) {
    iso_where w;
    (void)user;
    w.dump = (uint64_t)(uintptr_t)&dump, w.has = (uint64_t)(uintptr_t)&has, w.scratch = (uint64_t)(uintptr_t)scratch;
    w.bss = (uint64_t)(uintptr_t)pages, w.bss_size = sizeof(pages), w.text = (uint64_t)(uintptr_t)iso_entry;
    w.rodata = (uint64_t)(uintptr_t)iso_minus, w.stack = (uint64_t)(uintptr_t)&w;
    w.code32 = (uint64_t)(uintptr_t)iso_code32, w.code32_size = (uint64_t)(iso_code32_end - iso_code32);
    data_pages[4096]++, entry_stack[0] = 0, far.cs = 0;
    return hlsnap_call_return(call, hlsnap_bytes(&w, sizeof(w)));
}

static const hlsnap_function exports[] = {{"probe", "void()", probe, NULL}, {"attack", "void(bytes)", attack, NULL},
    {"scribble", "void(u64,u64,u64,u64)", scribble, NULL}, {"peek", "u64(u64,u64)", peek, NULL}, {"work", "bytes(u32)", work, NULL},
    {"where", "bytes()", where, NULL}};
static const hlsnap_function imports[] = {{"host_thing", "u64(u64)", NULL, NULL}};
static const hlsnap_module module = {exports, HLSNAP_COUNT(exports), imports, HLSNAP_COUNT(imports)};
HLSNAP_GUEST_MAIN(module);
#ifdef HLSNAP_GUEST_LIBC
int main(void) { hlsnap_rt_serve(); }
#endif

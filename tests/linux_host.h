/* linux_host.h - the Linux personality (hlsnap.h, >>linux) as a part of this program: a fake heap, mailbox and identity, what it
   asks its host for, and a way to make system calls. Include it instead of hlsnap.h.

    static void opens(void) { lx_begin(1 << 20, NULL, 0); CHECK_EQ(sys(SYS_open, S("/x"), 0), -ENOENT); }
*/
#ifndef LINUX_HOST_H
#define LINUX_HOST_H
#define HLSNAP__LX_HOST
#define HLSNAP_IMPLEMENTATION
#include "hlsnap.h"
#include "test.h"
#include <setjmp.h>
#include <unistd.h>

#define S(text) ((uint64_t)(uintptr_t)(text))
#define LX_MAILBOX (64u << 10)

static uint8_t *lx_heap;
static size_t lx_heap_size;
static struct { _Alignas(4096) uint8_t mailbox[LX_MAILBOX], identity[4096], runtime[4096], program[4096]; } lx;
static hlsnap_abi_identity *lx_identity; /* change it as a start or restore would */
static struct { uint32_t function; int32_t number; char text[4096]; size_t size; int count; } lx_request; /* the last one */
static char lx_out[3][65536]; /* what fd 1 and 2 got, with a NUL */
static size_t lx_out_size[3];
static uint64_t lx_tsc, lx_fs;
static const char *lx_input; /* what standard input still has; NULL = the program waits */
static int lx_input_waits;
static jmp_buf lx_ended; /* an abort or an exit comes out here, */
static bool lx_may_end; /* where one is looked for: else it would go on in whoever looked last */

#if defined(__has_feature)
#define LX_HAS_FEATURE(x) __has_feature(x)
#else
#define LX_HAS_FEATURE(x) 0
#endif
#if defined(__SANITIZE_ADDRESS__) || LX_HAS_FEATURE(address_sanitizer)
void __asan_unpoison_memory_region(void const volatile *at, size_t size);
#define lx_unpoison(at, size) __asan_unpoison_memory_region(at, size)
#else
#define lx_unpoison(at, size) ((void)(at))
#endif
static uint8_t *lx_main; /* somewhere on the stack of the program's first thread */

static void hlsnap__lx_request_out(void) {
    hlsnap_abi_mailbox *m = (hlsnap_abi_mailbox *)(void *)lx.mailbox;
    hlsnap_abi_message head;
    hlsnap_value v[2];
    CHECK(m->request >= m->out_offset && m->request < m->out_offset + m->out_size);
    CHECK(hlsnap__message_read(lx.mailbox + m->request, m->out_offset + m->out_size - m->request, &head, v, 2));
    CHECK_EQ(head.num_values, 2);
    lx_request.function = head.function;
    lx_request.number = v[0].as.i32;
    lx_request.count++;
    if (head.function == HLSNAP_ABI_FN_OUTPUT) {
        const int fd = v[0].as.i32;
        CHECK(fd == 1 || fd == 2);
        if (lx_out_size[fd] + v[1].size < sizeof(lx_out[fd])) {
            memcpy(lx_out[fd] + lx_out_size[fd], v[1].bytes, v[1].size);
            lx_out_size[fd] += v[1].size;
            lx_out[fd][lx_out_size[fd]] = 0;
        }
        return;
    }
    lx_request.size = v[1].size < sizeof(lx_request.text) ? v[1].size : sizeof(lx_request.text) - 1;
    memcpy(lx_request.text, v[1].str, lx_request.size);
    lx_request.text[lx_request.size] = 0;
    lx_unpoison(lx_main - (256 << 10), 256 << 10); /* a thread may be what leaves its stack here */
    if (head.function != HLSNAP_ABI_FN_ABORT && head.function != HLSNAP_ABI_FN_EXIT) return;
    if (!lx_may_end) {
        printf("# nobody looked for the end of the program: %s\nnot ok - the rest of the tests\n", lx_request.text);
        fflush(stdout);
        _exit(1);
    }
    longjmp(lx_ended, 1);
}
static void hlsnap__lx_return_out(void) { longjmp(lx_ended, 2); }
static uint64_t hlsnap__lx_rdtsc(void) { return lx_tsc; }
static uint64_t hlsnap__lx_fs_get(void) { return lx_fs; }
static void hlsnap__lx_fs_set(uint64_t fs) { lx_fs = fs; }
static uint64_t lx_vectors; /* stands for all of them */
static void hlsnap__lx_vectors_save(uint64_t to) { hlsnap__lx_put64(to, lx_vectors); }
static void hlsnap__lx_vectors_load(uint64_t from) { lx_vectors = hlsnap__lx_get64(from); }
static void hlsnap__lx_standard_output(int32_t fd, uint64_t from, uint64_t n) {
    hlsnap__lx_output(fd, (const uint8_t *)(uintptr_t)from, n);
}
static bool hlsnap__lx_input_ready(void) { return lx_input != NULL; }
static int64_t hlsnap__lx_input_read(uint64_t to, uint64_t n) {
    const size_t have = strlen(lx_input), k = n < have ? (size_t)n : have;
    memcpy((void *)(uintptr_t)to, lx_input, k);
    lx_input += k;
    return (int64_t)k;
}
static void hlsnap__lx_input_wait(void) {
    lx_input_waits++;
    lx_input = "fed";
}
static void hlsnap__lx_exit(int32_t status) {
    hlsnap__lx_text t;
    t.n = 0;
    hlsnap__lx_say_exit(&t, status);
    hlsnap__lx_end(HLSNAP_ABI_FN_EXIT, status, &t);
}

/* As a restore: another identity. */
static void lx_restart(void) {
    lx_identity->id[0]++;
    lx_identity->entropy[0]++;
    hlsnap__lx_arrive();
}

#define LX_STACKS 80 /* of the program's threads */
#define LX_STACK_SIZE (128u << 10)
static uint8_t lx_stacks[LX_STACKS][LX_STACK_SIZE] __attribute__((aligned(64)));
static bool lx_stack_used[LX_STACKS];

/* A new program with a heap of so many bytes and an archive. */
static void lx_begin(size_t heap, const void *files, size_t files_size) {
    hlsnap_abi_mailbox *m = (hlsnap_abi_mailbox *)(void *)lx.mailbox;
    hlsnap_abi_program *p;
    static uint8_t *archive;
    if (lx_heap) munmap(lx_heap, lx_heap_size);
    free(archive);
    archive = (uint8_t *)malloc(sizeof(*p) + files_size);
    lx_heap_size = heap;
    lx_heap = (uint8_t *)mmap(NULL, heap, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    memset(&lx, 0, sizeof(lx));
    memset(lx_out_size, 0, sizeof(lx_out_size));
    memset(&lx_request, 0, sizeof(lx_request));
    lx_out[1][0] = lx_out[2][0] = 0;
    lx_input = "";
    lx_input_waits = 0;
    lx_tsc = 1000;
    m->out_offset = 4096;
    m->out_size = LX_MAILBOX / 2;
    m->realtime_ns = 1700000000ull * 1000000000u;
    lx_identity = (hlsnap_abi_identity *)(void *)(lx.identity + HLSNAP_ABI_IDENTITY_OFFSET);
    lx_identity->mailbox = S(lx.mailbox);
    lx_identity->heap = S(lx_heap);
    lx_identity->heap_size = heap;
    lx_identity->runtime = S(lx.runtime);
    lx_identity->log_level = 4;
    lx_identity->options = HLSNAP_ABI_OPTION_OUTPUT;
    lx_identity->tsc_scale = 1ull << 32; /* a tick a nanosecond */
    lx_identity->id[0] = 1;
    p = (hlsnap_abi_program *)(void *)archive;
    memset(p, 0, sizeof(*p));
    p->files = sizeof(*p);
    p->files_size = files_size;
    if (files_size) memcpy(archive + sizeof(*p), files, files_size);
    lx_identity->program = S(archive);
    lx_identity->program_size = sizeof(*p) + files_size;
    memset(&hlsnap__lx, 0, sizeof(hlsnap__lx));
    memset(&hlsnap__lx_mem, 0, sizeof(hlsnap__lx_mem));
    memset(&hlsnap__lx_self, 0, sizeof(hlsnap__lx_self));
    memset(&hlsnap__lx_tasks, 0, sizeof(hlsnap__lx_tasks));
    memset(&hlsnap__lx_streams, 0, sizeof(hlsnap__lx_streams));
    memset(&hlsnap__lx_polling, 0, sizeof(hlsnap__lx_polling));
    memset(lx_stack_used, 0, sizeof(lx_stack_used));
    lx_main = (uint8_t *)__builtin_frame_address(0);
    hlsnap__lx_setup(lx.identity);
}

/* A system call, as the program would make it. */
static int64_t sys6(uint64_t number, uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t e, uint64_t f) {
    hlsnap__lx_frame frame;
    memset(&frame, 0, sizeof(frame));
    frame.rax = number;
    frame.rdi = a;
    frame.rsi = b;
    frame.rdx = c;
    frame.r10 = d;
    frame.r8 = e;
    frame.r9 = f;
    return hlsnap__lx_dispatch(&frame);
}
#define LX_SIXTH(n, a, b, c, d, e, f, ...) sys6(n, (uint64_t)(a), (uint64_t)(b), (uint64_t)(c), (uint64_t)(d), (uint64_t)(e), (uint64_t)(f))
#define sys(...) LX_SIXTH(__VA_ARGS__, 0, 0, 0, 0, 0, 0, 0)

/* A thread: a clone whose child runs fn(arg) on a stack of its own, and ends. Its number, or -errno. */
#define LX_CLONE 0x3d0f00 /* what a libc says */
static int64_t lx_clone(uint64_t flags, void (*fn)(void *), void *arg, uint32_t *tid, uint64_t tls) {
    hlsnap__lx_frame frame;
    int i = 0;
    int64_t r;
    while (i < LX_STACKS - 1 && lx_stack_used[i]) i++;
    lx_unpoison(lx_stacks[i], LX_STACK_SIZE);
    lx_stack_used[i] = true;
    memset(&frame, 0, sizeof(frame));
    frame.rax = SYS_clone;
    frame.rdi = flags;
    frame.rsi = S(lx_stacks[i] + LX_STACK_SIZE - 64);
    frame.rdx = S(tid);
    frame.r10 = S(tid);
    frame.r8 = tls;
    frame.r12 = S(fn);
    frame.r13 = S(arg);
    frame.r14 = (uint64_t)i;
    frame.rbx = 0x1234;
    frame.rsp = 1;
    r = hlsnap__lx_dispatch(&frame);
    if (r < 0) lx_stack_used[i] = false;
    return r;
}
/* As pthread_create and pthread_join; tid is 0 when it has ended. */
static int64_t lx_thread(void (*fn)(void *), void *arg, uint32_t *tid) { return lx_clone(LX_CLONE, fn, arg, tid, S(tid)); }
static void lx_join(const uint32_t *tid) {
    while (*(volatile const uint32_t *)tid) CHECK_EQ(sys(SYS_futex, tid, 0, *tid, 0), 0);
}

/* Where the child's clone returns to: in a guest, into the program. */
__asm__(".pushsection .text\n.globl hlsnap__lx_back\n.hidden hlsnap__lx_back\nhlsnap__lx_back:\n"
        "  mov %rsp, %rdi\n  mov %eax, %esi\n  mov 120(%rsp), %rsp\n  and $-16, %rsp\n  call lx_child\n  ud2\n.popsection\n");
__attribute__((used)) static void lx_child(const hlsnap__lx_frame *frame, int rax) __asm__("lx_child");
static void lx_child(const hlsnap__lx_frame *frame, int rax) {
    void (*fn)(void *);
    const uint64_t i = frame->r14, r12 = frame->r12;
    CHECK_EQ(rax, 0);
    CHECK_EQ(frame->rbx, 0x1234);
    CHECK_EQ(frame->rax, SYS_clone);
    memcpy(&fn, &r12, sizeof(fn));
    fn((void *)(uintptr_t)frame->r13);
    lx_stack_used[i] = false; /* nobody takes it before the call is made */
    sys(SYS_exit, 7);
}

/* A call that ends the program: nothing else may come back. */
#define ENDS(call) (lx_may_end = true, setjmp(lx_ended) ? !(lx_may_end = false) : ((void)(call), lx_may_end = false))
#endif

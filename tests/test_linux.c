/* test_linux.c - the Linux personality without a VM: system calls into a fake heap. */
#include "linux_host.h"
#include "test_linux_files.h"
#include "test_linux_maps.h"
#include "test_linux_threads.h"
#include "test_linux_core.h"

/* ---- memory ---- */

static void brk_grows_and_shrinks(void) {
    int64_t start;
    lx_begin(1 << 20, NULL, 0);
    start = sys(SYS_brk, 0);
    CHECK(start > 0 && (uint64_t)start >= S(lx_heap) && start % 4096 == 0);
    CHECK_EQ(sys(SYS_brk, start + 10000), start + 10000);
    memset((void *)(uintptr_t)start, 7, 10000);
    CHECK_EQ(sys(SYS_brk, start + 100), start + 100);
    CHECK_EQ(sys(SYS_brk, start + 10000), start + 10000);
    CHECK_EQ(((uint8_t *)(uintptr_t)start)[4095], 7); /* as on Linux: only whole pages are given back */
    CHECK_EQ(((uint8_t *)(uintptr_t)start)[4096], 0);
    CHECK_EQ(((uint8_t *)(uintptr_t)start)[9999], 0);
    CHECK_EQ(sys(SYS_brk, start + (2 << 20)), start + 10000); /* does not fit: stays */
    CHECK_EQ(sys(SYS_brk, 1), start + 10000);
}

static void heap_told(void) {
    const hlsnap_abi_mailbox *m = (const hlsnap_abi_mailbox *)(void *)lx.mailbox;
    uint64_t start, none;
    lx_begin(1 << 20, NULL, 0);
    hlsnap__lx_tell();
    none = m->heap_used;
    CHECK(none > 0 && none % 4096 == 0 && m->heap_peak >= none); /* the personality's own */
    start = (uint64_t)sys(SYS_brk, 0);
    sys(SYS_brk, start + 100000);
    sys(SYS_brk, start + 10);
    hlsnap__lx_tell();
    CHECK_EQ(m->heap_used, none + 4096);
    CHECK_EQ(m->heap_peak, none + 102400);
    sys(SYS_brk, start + 5000); /* more again, but not the most */
    hlsnap__lx_tell();
    CHECK_EQ(m->heap_used, none + 8192);
    CHECK_EQ(m->heap_peak, none + 102400);
}

static const test_row tests[] = {TEST(heap_told), TEST(brk_grows_and_shrinks), LX_CORE_TESTS, LX_FILE_TESTS, LX_MAPS_TESTS, THREADS_TESTS};
int main(int argc, char **argv) { return TEST_MAIN(tests, argc, argv); }

/* test_linux_core.h - memory, clocks, random bytes, who the program is, calls that are refused, what goes to the host and the stack
   that a program starts on, of the Linux personality. A part of test_linux.c, rows: LX_CORE_TESTS. */
#ifndef TEST_LINUX_CORE_H
#define TEST_LINUX_CORE_H
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/utsname.h>

#define CORE_ANON (MAP_PRIVATE | MAP_ANONYMOUS)
#define CORE_RW (PROT_READ | PROT_WRITE)
#define CORE_PAGE(r) ((uint8_t *)(uintptr_t)(r))
static const uint64_t core_maymove = 1; /* MREMAP_MAYMOVE */
#define core_noreplace 0x100000         /* MAP_FIXED_NOREPLACE */

static void core_begin(void) { lx_begin(1 << 20, NULL, 0); }
static int64_t core_map(uint64_t hint, uint64_t bytes, int flags) { return sys(SYS_mmap, hint, bytes, CORE_RW, CORE_ANON | flags, -1, 0); }
static bool core_is(const uint8_t *p, uint8_t v, size_t n) {
    while (n--)
        if (*p++ != v) return false;
    return true;
}
static uint64_t core_used(void) { /* pages, as the bitmap has them */
    uint64_t i, n = 0;
    for (i = 0; i < hlsnap__lx_mem.pages; i++) n += hlsnap__lx_bit(hlsnap__lx_mem.used, i);
    CHECK_EQ(n, hlsnap__lx.num_used);
    return n;
}
static bool core_dirty(int64_t at) { return hlsnap__lx_bit(hlsnap__lx_mem.dirty, hlsnap__lx_page_of((uint64_t)at)); }

/* ---- mappings ---- */

static void mmap_places(void) {
    int64_t a, b;
    core_begin();
    a = core_map(0, 10000, 0);
    CHECK_EQ(a, (int64_t)S(lx_heap) + (1 << 20) - 3 * 4096); /* from above */
    CHECK(core_is(CORE_PAGE(a), 0, 3 * 4096));
    CHECK_EQ(core_map(0, 1, 0), a - 4096);
    b = a - 64 * 4096;
    CHECK_EQ(core_map((uint64_t)b, 8192, 0), b);                /* a hint */
    CHECK_EQ(core_map((uint64_t)b, 4096, 0), a - 2 * 4096);     /* that is taken */
    CHECK_EQ(core_map((uint64_t)b - 4095, 4096, 0), a - 3 * 4096); /* or no page */
    CHECK_EQ(core_map(4096, 4096, 0), a - 4 * 4096);            /* or not in the heap */
    CHECK_EQ(core_map((uint64_t)b, 4096, core_noreplace), -EEXIST);
    CHECK_EQ(core_map((uint64_t)b + 4096, 8192, core_noreplace), -EEXIST); /* a part of it */
    CHECK_EQ(core_map((uint64_t)b + 8192, 8192, core_noreplace), b + 8192);
    memset(CORE_PAGE(b), 7, 8192);
    CHECK_EQ(core_map((uint64_t)b + 4096, 8192, MAP_FIXED), b + 4096);
    CHECK(core_is(CORE_PAGE(b), 7, 4096));
    CHECK(core_is(CORE_PAGE(b + 4096), 0, 8192));
    CHECK_EQ(core_map((uint64_t)b + 1, 4096, MAP_FIXED), -EINVAL);
    CHECK_EQ(core_map(4096, 4096, MAP_FIXED), -ENOMEM);
    CHECK_EQ(core_map(S(lx_heap) + (1 << 20) - 4096, 8192, MAP_FIXED), -ENOMEM); /* beyond its end */
    core_used();
}

static void mmap_refuses(void) {
    core_begin();
    CHECK_EQ(core_map(0, 0, 0), -EINVAL);
    CHECK_EQ(sys(SYS_mmap, 0, 4096, CORE_RW, CORE_ANON, -1, 1), -EINVAL);
    CHECK_EQ(sys(SYS_mmap, 0, 4096, CORE_RW, MAP_ANONYMOUS, -1, 0), -EINVAL);
    CHECK_EQ(sys(SYS_mmap, 0, 4096, PROT_READ | PROT_EXEC, CORE_ANON, -1, 0), -EACCES);
    CHECK_EQ(sys(SYS_mprotect, core_map(0, 4096, 0), 4096, PROT_READ | PROT_EXEC), -EACCES);
    CHECK_EQ(sys(SYS_mprotect, S(lx_heap) + 1, 4096, PROT_READ), -EINVAL);
    CHECK_EQ(core_map(0, (1 << 20) + 1, 0), -ENOMEM);
    CHECK_EQ(core_map(0, 1 << 20, 0), -ENOMEM);
    CHECK_EQ(core_map(0, UINT64_MAX, 0), -ENOMEM);
    CHECK_EQ(sys(SYS_munmap, S(lx_heap) + 1, 4096), -EINVAL);
    CHECK_EQ(sys(SYS_munmap, S(lx_heap), 0), -EINVAL);
    CHECK_EQ(sys(SYS_munmap, 4096, 4096), 0); /* the image's own */
    CHECK_EQ(sys(SYS_munmap, 4096, UINT64_MAX - 8191), 0);
    CHECK_EQ(sys(SYS_madvise, S(lx_heap) + 1, 4096, MADV_DONTNEED), -EINVAL);
    CHECK_EQ(sys(SYS_msync, S(lx_heap), 4096, MS_SYNC), 0);
    CHECK_EQ(sys(SYS_mlock, S(lx_heap), 4096), 0);
}

static void memory_is_zero_again(void) {
    uint64_t used;
    int64_t a;
    core_begin();
    used = core_used();
    a = core_map(0, 16 * 4096, 0);
    memset(CORE_PAGE(a), 9, 16 * 4096);
    CHECK_EQ(sys(SYS_munmap, a + 4 * 4096, 2 * 4096 - 7), 0); /* a hole, of whole pages */
    CHECK_EQ(core_used(), used + 14);
    CHECK(core_is(CORE_PAGE(a), 9, 4 * 4096));
    CHECK_EQ(core_map(0, 2 * 4096, 0), a + 4 * 4096); /* it is what is highest */
    CHECK(core_is(CORE_PAGE(a + 4 * 4096), 0, 2 * 4096));
    CHECK(core_is(CORE_PAGE(a + 6 * 4096), 9, 10 * 4096));
    CHECK_EQ(sys(SYS_munmap, a, 16 * 4096), 0);
    CHECK_EQ(sys(SYS_munmap, a, 16 * 4096), 0); /* nothing is there: that is no error */
    CHECK_EQ(core_used(), used);
    CHECK_EQ(core_map(0, 16 * 4096, 0), a);
    CHECK(core_is(CORE_PAGE(a), 0, 16 * 4096));
}

/* A program may unmap what it has unmapped before; what the personality keeps there stays. */
static void unmapping_spares_files(void) {
    static char text[8192], back[8192];
    int64_t a, fd;
    core_begin();
    a = core_map(0, 16 * 4096, 0);
    CHECK_EQ(sys(SYS_munmap, a, 16 * 4096), 0);
    fd = sys(SYS_open, S("/tmp/f"), 0102, 0600);
    memset(text, 'f', sizeof(text));
    CHECK_EQ(sys(SYS_write, fd, text, sizeof(text)), sizeof(text)); /* lies where the mapping was */
    CHECK_EQ(sys(SYS_munmap, a, 16 * 4096), 0);
    CHECK(core_map(0, 16 * 4096, 0) > 0);
    CHECK_EQ(core_map((uint64_t)a, 16 * 4096, MAP_FIXED), -ENOMEM);
    CHECK_EQ(sys(SYS_madvise, a, 16 * 4096, MADV_DONTNEED), 0);
    CHECK_EQ(sys(SYS_pread64, fd, back, sizeof(back), 0), sizeof(back));
    CHECK(memcmp(text, back, sizeof(back)) == 0);
}

static void reservations_stay_untouched(void) {
    int64_t a;
    core_begin();
    a = sys(SYS_mmap, 0, 32 * 4096, PROT_NONE, CORE_ANON, -1, 0);
    CHECK(a > 0 && !core_dirty(a));
    CHECK_EQ(sys(SYS_mprotect, a + 4096, 4096, CORE_RW), 0);
    CHECK(!core_dirty(a) && core_dirty(a + 4096) && !core_dirty(a + 8192));
    *CORE_PAGE(a + 4096) = 1;
    *CORE_PAGE(a + 8192) = 1; /* only to see whether it is looked at */
    CHECK_EQ(sys(SYS_munmap, a, 32 * 4096), 0);
    CHECK_EQ(core_map((uint64_t)a, 32 * 4096, 0), a);
    CHECK_EQ(*CORE_PAGE(a + 4096), 0);
    CHECK_EQ(*CORE_PAGE(a + 8192), 1);
}

static void mremap_moves(void) {
    int64_t a, b, c;
    core_begin();
    b = core_map(0, 4096, 0);
    a = core_map((uint64_t)b - 8 * 4096, 2 * 4096, 0);
    memset(CORE_PAGE(a), 5, 2 * 4096);
    CHECK_EQ(sys(SYS_mremap, a, 2 * 4096, 8 * 4096 - 1, 0), a); /* in place */
    CHECK(core_is(CORE_PAGE(a), 5, 2 * 4096) && core_is(CORE_PAGE(a + 2 * 4096), 0, 6 * 4096));
    CHECK_EQ(sys(SYS_mremap, a, 8 * 4096, 9 * 4096, 0), -ENOMEM); /* b is there */
    c = sys(SYS_mremap, a, 8 * 4096, 9 * 4096, core_maymove);
    CHECK(c > 0 && c != a);
    CHECK(core_is(CORE_PAGE(c), 5, 2 * 4096) && core_is(CORE_PAGE(c + 2 * 4096), 0, 7 * 4096));
    CHECK_EQ(core_map((uint64_t)a, 8 * 4096, core_noreplace), a); /* free again */
    CHECK_EQ(sys(SYS_mremap, c, 9 * 4096, 4096, 0), c);
    CHECK_EQ(core_map((uint64_t)c + 4096, 8 * 4096, core_noreplace), c + 4096);
    CHECK_EQ(sys(SYS_mremap, c, 4096, 1, 0), c);
    CHECK_EQ(sys(SYS_mremap, c + 1, 4096, 4096, 0), -EINVAL);
    CHECK_EQ(sys(SYS_mremap, c, 4096, 0, 0), -EINVAL);
    CHECK_EQ(sys(SYS_mremap, c, 0, 4096, 0), -EINVAL);
    CHECK_EQ(sys(SYS_mremap, c, 4096, 4096, core_maymove | 2), -EINVAL);
    CHECK_EQ(sys(SYS_mremap, 4096, 4096, 8192, core_maymove), -EINVAL);
    CHECK_EQ(sys(SYS_mremap, c, 4096, 2 << 20, core_maymove), -ENOMEM);
    CHECK_EQ(sys(SYS_munmap, c, 4096), 0);
    CHECK_EQ(sys(SYS_mremap, c, 4096, 8192, core_maymove), -EFAULT); /* nothing is there */
    CHECK_EQ(sys(SYS_mprotect, c, 4096, CORE_RW), -ENOMEM);
    CHECK_EQ(sys(SYS_madvise, c, 4096, MADV_DONTNEED), -ENOMEM);
    core_used();
}

static void dontneed_zeroes(void) {
    int64_t a;
    core_begin();
    a = core_map(0, 3 * 4096, 0);
    memset(CORE_PAGE(a), 5, 3 * 4096);
    CHECK_EQ(sys(SYS_madvise, a + 4096, 4096, MADV_DONTNEED), 0);
    CHECK(core_is(CORE_PAGE(a), 5, 4096) && core_is(CORE_PAGE(a + 4096), 0, 4096) && core_is(CORE_PAGE(a + 8192), 5, 4096));
    CHECK_EQ(sys(SYS_madvise, a, 3 * 4096, MADV_WILLNEED), 0);
    CHECK_EQ(*CORE_PAGE(a), 5);
}

static void advice_that_is_none(void) { /* libraries try one, to see whether a yes means anything */
    static const int known[] = {0, 1, 2, 3, 4, 8, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 25};
    static const int64_t unknown[] = {-1, 5, 6, 7, 9, 24, 26, 63, 64, 100, 102, 12345, 1ll << 33};
    size_t i;
    int64_t a;
    core_begin();
    a = core_map(0, 4096, 0);
    for (i = 0; i < HLSNAP_COUNT(known); i++) CHECK_EQ(sys(SYS_madvise, a, 4096, known[i]), 0);
    for (i = 0; i < HLSNAP_COUNT(unknown); i++) CHECK_EQ(sys(SYS_madvise, a, 4096, unknown[i]), -EINVAL);
    CHECK_EQ(sys(SYS_madvise, 4096, 4096, -1), -EINVAL);
}

static void wipe_on_fork(void) {
    int64_t a, i;
    core_begin();
    a = core_map(0, 100 * 4096, 0);
    memset(CORE_PAGE(a), 5, 100 * 4096);
    CHECK_EQ(sys(SYS_madvise, a, 6 * 4096, 18), 0);
    CHECK_EQ(sys(SYS_madvise, a + 2 * 4096, 4096, 19), 0);  /* KEEPONFORK: cut in two */
    CHECK_EQ(sys(SYS_munmap, a + 5 * 4096, 4096), 0);       /* cut at its end */
    CHECK_EQ(core_map((uint64_t)a + 5 * 4096, 4096, MAP_FIXED), a + 5 * 4096);
    memset(CORE_PAGE(a + 5 * 4096), 6, 4096);
    hlsnap__lx_arrive(); /* the next call is no restore */
    CHECK(core_is(CORE_PAGE(a), 5, 5 * 4096));
    lx_restart();
    CHECK(core_is(CORE_PAGE(a), 0, 2 * 4096) && core_is(CORE_PAGE(a + 2 * 4096), 5, 4096));
    CHECK(core_is(CORE_PAGE(a + 3 * 4096), 0, 2 * 4096) && core_is(CORE_PAGE(a + 5 * 4096), 6, 4096));
    memset(CORE_PAGE(a), 5, 2 * 4096);
    lx_restart(); /* at each */
    CHECK(core_is(CORE_PAGE(a), 0, 2 * 4096));
    for (i = 8; hlsnap__lx_mem.wipes[HLSNAP__LX_WIPES - 1].to == 0; i += 3) CHECK_EQ(sys(SYS_madvise, a + i * 4096, 2 * 4096, 18), 0);
    CHECK_EQ(sys(SYS_madvise, a + 99 * 4096, 4096, 18), -ENOMEM); /* there are 32 */
    CHECK_EQ(sys(SYS_munmap, a, 100 * 4096), 0);
    for (i = 0; i < (int64_t)HLSNAP__LX_WIPES; i++) CHECK_EQ(hlsnap__lx_mem.wipes[i].from, hlsnap__lx_mem.wipes[i].to);
    a = core_map(0, 99 * 4096, 0);
    for (i = 0; i < 32; i++) CHECK_EQ(sys(SYS_madvise, a + 3 * i * 4096, 3 * 4096, 18), 0);
    memset(CORE_PAGE(a), 5, 99 * 4096);
    CHECK_EQ(sys(SYS_madvise, a + 4096, 4096, 19), 0); /* no room for the upper part: it is forgotten at once */
    CHECK(core_is(CORE_PAGE(a), 5, 8192) && core_is(CORE_PAGE(a + 8192), 0, 4096) && core_is(CORE_PAGE(a + 3 * 4096), 5, 4096));
    CHECK_EQ(sys(SYS_madvise, 4096, 4096, 18), -EINVAL);
}

static void shared_mappings_are_the_file(void) {
    int64_t fd, a, b;
    uint64_t used;
    char back[8];
    core_begin();
    used = core_used();
    fd = sys(SYS_open, S("/tmp/f"), 0102, 0600);
    CHECK_EQ(sys(SYS_ftruncate, fd, 4 * 4096), 0);
    a = sys(SYS_mmap, 0, 4 * 4096, CORE_RW, MAP_SHARED, fd, 0);
    CHECK(a > 0);
    CHECK_EQ(sys(SYS_mmap, 0, 4096, CORE_RW, MAP_SHARED, fd, 8192), a + 8192); /* the same pages */
    memcpy(CORE_PAGE(a + 8192), "shared", 7);
    CHECK_EQ(sys(SYS_pread64, fd, back, 7, 8192), 7);
    CHECK_STR(back, "shared");
    CHECK_EQ(sys(SYS_madvise, a, 4 * 4096, MADV_DONTNEED), 0); /* the file keeps what is in it */
    CHECK_STR((char *)CORE_PAGE(a + 8192), "shared");
    CHECK_EQ(sys(SYS_madvise, a, 4096, 18), -EINVAL);
    CHECK_EQ(sys(SYS_mremap, a, 4 * 4096, 5 * 4096, core_maymove), -ENOMEM);
    CHECK_EQ(sys(SYS_mmap, a, 4096, CORE_RW, MAP_SHARED | MAP_FIXED, fd, 0), -ENOMEM);
    CHECK_EQ(core_map((uint64_t)a, 4096, MAP_FIXED), -ENOMEM);
    b = sys(SYS_mmap, 0, 4096, CORE_RW, MAP_PRIVATE, fd, 8192); /* a copy */
    CHECK_STR((char *)CORE_PAGE(b), "shared");
    *CORE_PAGE(b) = 'S';
    CHECK_STR((char *)CORE_PAGE(a + 8192), "shared");
    CHECK_EQ(sys(SYS_munmap, a + 4096, 4096), 0); /* cut in two; the other mapping keeps its part */
    CHECK_EQ(hlsnap__lx_node_at(hlsnap__lx_mem.shares[0].node)->pins, 3);
    CHECK_EQ(sys(SYS_close, fd), 0);
    CHECK_EQ(sys(SYS_unlink, "/tmp/f"), 0);
    CHECK_STR((char *)CORE_PAGE(a + 8192), "shared");
    CHECK_EQ(sys(SYS_munmap, a, 4 * 4096), 0);
    CHECK_STR((char *)CORE_PAGE(a + 8192), "shared");
    CHECK_EQ(sys(SYS_munmap, a + 8192, 4096), 0);
    CHECK_EQ(sys(SYS_munmap, b, 4096), 0);
    CHECK(core_used() <= used + 8); /* small blocks are kept */
}

static void wiped_pages_move(void) {
    int64_t a, b, i;
    core_begin();
    b = core_map(0, 4096, 0);
    a = core_map((uint64_t)b - 4 * 4096, 2 * 4096, 0);
    CHECK_EQ(sys(SYS_madvise, a, 2 * 4096, 18), 0);
    CHECK_EQ(sys(SYS_mremap, a, 2 * 4096, 4 * 4096, 0), a); /* in place, and all of it is wiped */
    memset(CORE_PAGE(a), 5, 4 * 4096);
    lx_restart();
    CHECK(core_is(CORE_PAGE(a), 0, 4 * 4096));
    memset(CORE_PAGE(a), 5, 4 * 4096);
    b = sys(SYS_mremap, a, 4 * 4096, 6 * 4096, core_maymove);
    CHECK(b > 0 && b != a && core_is(CORE_PAGE(b), 5, 4 * 4096));
    CHECK_EQ(core_map((uint64_t)a, 4 * 4096, MAP_FIXED), a);
    memset(CORE_PAGE(a), 6, 4 * 4096);
    memset(CORE_PAGE(b), 5, 6 * 4096);
    lx_restart();
    CHECK(core_is(CORE_PAGE(b), 0, 6 * 4096) && core_is(CORE_PAGE(a), 6, 4 * 4096));
    CHECK_EQ(sys(SYS_madvise, b + 4096, 4096, 19), 0); /* a part of it is not wiped: two mappings there */
    CHECK_EQ(sys(SYS_mremap, b, 6 * 4096, 64 * 4096, core_maymove), -EFAULT);
    CHECK_EQ(sys(SYS_munmap, a, 4 * 4096), 0);
    CHECK_EQ(sys(SYS_munmap, b, 6 * 4096), 0);
    a = core_map(0, 65 * 4096, 0);
    for (i = 0; i < (int64_t)HLSNAP__LX_WIPES; i++) CHECK_EQ(sys(SYS_madvise, a + 2 * i * 4096, 4096, 18), 0);
    memset(CORE_PAGE(a), 5, 65 * 4096);
    CHECK_EQ(sys(SYS_mremap, a, 4096, 8192, core_maymove), -ENOMEM); /* no place to remember it: it stays */
    CHECK_EQ(*CORE_PAGE(a), 5);
    lx_restart();
    CHECK(core_is(CORE_PAGE(a), 0, 4096) && core_is(CORE_PAGE(a + 4096), 5, 4096));
}

/* A file that is mapped twice is so at one address: what one unmaps, the other has still. */
static void shared_mappings_of_two(void) {
    int64_t fd, a, other, i;
    uint64_t used;
    uint32_t node;
    core_begin();
    used = core_used();
    fd = sys(SYS_open, S("/tmp/f"), 0102, 0600);
    CHECK_EQ(sys(SYS_ftruncate, fd, 4 * 4096), 0);
    a = sys(SYS_mmap, 0, 4 * 4096, CORE_RW, MAP_SHARED, fd, 0);
    CHECK_EQ(sys(SYS_mmap, 0, 4 * 4096, CORE_RW, MAP_SHARED, fd, 0), a);
    CHECK_EQ(sys(SYS_mmap, 0, 2 * 4096, CORE_RW, MAP_SHARED, fd, 4096), a + 4096);
    node = hlsnap__lx_mem.shares[0].node;
    CHECK_EQ(hlsnap__lx_node_at(node)->pins, 3);
    CHECK_EQ(sys(SYS_munmap, a, 4 * 4096), 0);
    CHECK_EQ(hlsnap__lx_node_at(node)->pins, 2);
    CHECK_EQ(sys(SYS_close, fd), 0);
    CHECK_EQ(sys(SYS_unlink, S("/tmp/f")), 0);
    memset(CORE_PAGE(a), '!', 4 * 4096);
    other = sys(SYS_open, S("/tmp/other"), 0102, 0600);
    for (i = 0; i < 4; i++) CHECK_EQ(sys(SYS_write, other, S("ooooooo"), 8), 8);
    CHECK(core_is(CORE_PAGE(a), '!', 4 * 4096));
    CHECK_EQ(sys(SYS_munmap, a + 4096, 3 * 4096), 0); /* of one of them each: the whole one's part, first come */
    CHECK_EQ(hlsnap__lx_node_at(node)->pins, 2);
    CHECK_EQ(sys(SYS_munmap, a + 4096, 4096), 0);
    CHECK_EQ(sys(SYS_munmap, a + 8192, 4096), 0);
    CHECK_EQ(hlsnap__lx_node_at(node)->pins, 1);
    CHECK(core_is(CORE_PAGE(a), '!', 4096));
    CHECK_EQ(sys(SYS_munmap, a, 4096), 0);
    for (i = 0; i < (int64_t)HLSNAP__LX_SHARES; i++) CHECK_EQ(hlsnap__lx_mem.shares[i].from, hlsnap__lx_mem.shares[i].to);
    CHECK(core_used() <= used + 8);
}

/* A file that was there before it was mapped can grow still, as far as it had pages to spare. */
static void mapped_files_grow(void) {
    static char text[8192];
    int64_t fd, a;
    core_begin();
    fd = sys(SYS_open, S("/tmp/f"), 0102, 0600);
    CHECK_EQ(sys(SYS_ftruncate, fd, 8192), 0);
    a = sys(SYS_mmap, 0, 8192, CORE_RW, MAP_SHARED, fd, 0);
    CHECK(a > 0);
    CHECK_EQ(sys(SYS_pwrite64, fd, text, 8192, 2), 8192);
    CHECK_EQ(sys(SYS_pwrite64, fd, text, 100, 8194), 100);
    CHECK_EQ(sys(SYS_ftruncate, fd, 20000), 0);
    CHECK_EQ(sys(SYS_mmap, 0, 16384, CORE_RW, MAP_SHARED, fd, 0), a);
    CHECK_EQ(sys(SYS_fallocate, fd, 0, 0, 30000), 0);
}

/* Offsets that no file has, and whose double is none any more. */
static void mapped_far_beyond(void) {
    static const uint64_t offsets[] = {1ull << 63, (1ull << 63) + 8192, (1ull << 63) - 4096, UINT64_MAX - 4095, UINT64_MAX - 8191};
    static const uint64_t large[] = {1ull << 62, (1ull << 62) - 4096, 1ull << 61, 1ull << 40, (1ull << 63) - 8192};
    int64_t fd;
    size_t i;
    core_begin();
    fd = sys(SYS_open, S("/tmp/f"), 0102, 0600);
    CHECK_EQ(sys(SYS_ftruncate, fd, 8192), 0);
    for (i = 0; i < HLSNAP_COUNT(offsets); i++) {
        CHECK_EQ(sys(SYS_mmap, 0, 8192, CORE_RW, MAP_SHARED, fd, offsets[i]), -EOVERFLOW);
        CHECK_EQ(sys(SYS_mmap, 0, 8192, CORE_RW, MAP_PRIVATE, fd, offsets[i]), -EOVERFLOW);
    }
    for (i = 0; i < HLSNAP_COUNT(large); i++) {
        const int64_t r = sys(SYS_mmap, 0, 8192, CORE_RW, MAP_SHARED, fd, large[i]);
        CHECK_EQ(r, large[i] > INT64_MAX - 8192ull ? -EOVERFLOW : -ENOMEM);
    }
    for (i = 0; i < HLSNAP__LX_SHARES; i++) CHECK_EQ(hlsnap__lx_mem.shares[i].from, hlsnap__lx_mem.shares[i].to);
}

/* Whole pages of it, whatever was asked for; it stays as it is, also when the program needs it not. */
static void private_copies_of_files(void) {
    static char text[8192], back[8192];
    int64_t fd, a;
    core_begin();
    memset(text, 'f', sizeof(text));
    fd = sys(SYS_open, S("/tmp/f"), 0102, 0600);
    CHECK_EQ(sys(SYS_write, fd, text, 5000), 5000);
    a = sys(SYS_mmap, 0, 100, CORE_RW, MAP_PRIVATE, fd, 0);
    CHECK(core_is(CORE_PAGE(a), 'f', 4096));
    CHECK_EQ(sys(SYS_madvise, a, 4096, MADV_DONTNEED), 0);
    CHECK(core_is(CORE_PAGE(a), 'f', 4096));
    CHECK_EQ(sys(SYS_madvise, a, 4096, 18), -EINVAL);
    CHECK_EQ(sys(SYS_munmap, a, 4096), 0);
    CHECK_EQ(core_map((uint64_t)a, 4096, MAP_FIXED), a); /* what is there now is no copy of a file */
    memset(CORE_PAGE(a), 5, 4096);
    CHECK_EQ(sys(SYS_madvise, a, 4096, MADV_DONTNEED), 0);
    CHECK(core_is(CORE_PAGE(a), 0, 4096));
    a = sys(SYS_mmap, 0, 8192, CORE_RW, MAP_PRIVATE, fd, 0);
    CHECK(core_is(CORE_PAGE(a), 'f', 5000) && core_is(CORE_PAGE(a + 5000), 0, 3192));
    a = sys(SYS_mremap, a, 8192, 64 * 4096, core_maymove);
    CHECK_EQ(sys(SYS_madvise, a, 64 * 4096, MADV_DONTNEED), 0);
    CHECK(core_is(CORE_PAGE(a), 'f', 5000));
    CHECK_EQ(sys(SYS_pread64, fd, back, sizeof(back), 0), 5000);
}

/* Pages of brk that the program gave back may be the personality's since: shrinking does not touch them, nor does a restore wipe what
   was to be wiped there. */
static void brk_leaves_what_is_not_its_own(void) {
    uint64_t start;
    uint8_t *own;
    lx_begin(16 << 12, NULL, 0);
    start = (uint64_t)sys(SYS_brk, 0);
    CHECK_EQ(sys(SYS_brk, start + 3 * 4096), start + 3 * 4096);
    CHECK_EQ(sys(SYS_mmap, 0, (hlsnap__lx_mem.pages - hlsnap__lx.num_used) * 4096, 3, 0x22, -1, 0) > 0, 1); /* the rest */
    CHECK_EQ(sys(SYS_madvise, start + 4096, 4096, 18), 0);
    CHECK_EQ(sys(SYS_munmap, start + 2 * 4096, 4096), 0);
    own = (uint8_t *)hlsnap__lx_pages(4096);
    CHECK_EQ(S(own), start + 2 * 4096);
    memset(own, 7, 4096);
    CHECK_EQ(sys(SYS_brk, start + 2 * 4096 + 8), start + 2 * 4096 + 8);
    CHECK(own[8] == 7 && own[4095] == 7);
    CHECK_EQ(sys(SYS_brk, start + 4096), start + 4096);
    own = (uint8_t *)hlsnap__lx_pages(4096);
    CHECK_EQ(S(own), start + 4096);
    memset(own, 7, 4096);
    lx_restart();
    CHECK(own[0] == 7 && own[4095] == 7);
}

static void brk_meets_mappings(void) {
    int64_t start, a;
    core_begin();
    start = sys(SYS_brk, 0);
    a = core_map((uint64_t)start + 4 * 4096, 4096, 0);
    CHECK_EQ(sys(SYS_brk, start + 5 * 4096), start);
    CHECK_EQ(sys(SYS_brk, start + 4 * 4096), start + 4 * 4096);
    memset(CORE_PAGE(start), 3, 4 * 4096);
    CHECK_EQ(sys(SYS_brk, start + 4 * 4096 + 1), start + 4 * 4096);
    CHECK_EQ(sys(SYS_munmap, a, 4096), 0);
    CHECK_EQ(sys(SYS_brk, start + 4 * 4096 + 1), start + 4 * 4096 + 1);
    CHECK_EQ(sys(SYS_brk, start + 4096 + 8), start + 4096 + 8);
    CHECK_EQ(core_map((uint64_t)start + 2 * 4096, 4096, core_noreplace), start + 2 * 4096); /* given back, but for the page that is begun */
    CHECK_EQ(core_map((uint64_t)start + 4096, 4096, core_noreplace), -EEXIST);
    CHECK_EQ(sys(SYS_brk, start + 2 * 4096), start + 2 * 4096);
    CHECK(core_is(CORE_PAGE(start), 3, 2 * 4096));
    CHECK_EQ(sys(SYS_brk, start - 1), start + 2 * 4096);
    CHECK_EQ(sys(SYS_brk, UINT64_MAX), start + 2 * 4096);
    CHECK_EQ(sys(SYS_brk, start), start);
    core_used();
}

static void memory_runs_out(void) {
    int64_t n = 0, last = 0, a, start;
    uint64_t free, used;
    core_begin();
    used = core_used();
    free = hlsnap__lx_mem.pages - used;
    while ((a = core_map(0, 4096, 0)) > 0) {
        last = a;
        n++;
    }
    CHECK_EQ(a, -ENOMEM);
    CHECK_EQ(n, free);
    CHECK_EQ(core_used(), hlsnap__lx_mem.pages);
    CHECK_EQ(hlsnap__lx.peak, hlsnap__lx_mem.pages);
    start = sys(SYS_brk, 0);
    CHECK_EQ(sys(SYS_brk, start + 1), start);
    CHECK_EQ(hlsnap__lx_pages(1) == NULL, 1);
    CHECK_EQ(sys(SYS_munmap, last + 4096, 4096), 0);
    CHECK_EQ(core_map(0, 8192, 0), -ENOMEM);
    CHECK_EQ(core_map(0, 4096, 0), last + 4096);
    CHECK_EQ(sys(SYS_munmap, last, (uint64_t)n * 4096), 0);
    CHECK_EQ(core_used(), used);
    CHECK_EQ(hlsnap__lx.peak, hlsnap__lx_mem.pages);
    CHECK(core_map(0, free * 4096, 0) > 0); /* all in one piece */
}

static void trim_forgets(void) {
    int64_t a;
    core_begin();
    a = core_map(0, 4 * 4096, 0);
    memset(CORE_PAGE(a), 5, 4 * 4096);
    CHECK_EQ(sys(SYS_munmap, a + 4096, 8192), 0);
    CHECK_EQ(*CORE_PAGE(a + 4096), 5);
    hlsnap__lx_trim();
    CHECK(core_is(CORE_PAGE(a), 5, 4096) && core_is(CORE_PAGE(a + 4096), 0, 8192) && core_is(CORE_PAGE(a + 3 * 4096), 5, 4096));
    CHECK(core_dirty(a) && !core_dirty(a + 4096) && !core_dirty(a + 8192));
}

static void small_blocks(void) {
    static uint8_t *p[1000];
    uint64_t used, i, k;
    core_begin();
    used = core_used();
    for (i = 0; i < 200; i++) {
        p[i] = (uint8_t *)hlsnap__lx_alloc(1 + i);
        CHECK(p[i] && core_is(p[i], 0, 1 + i));
        memset(p[i], (int)i, 1 + i);
    }
    for (i = 0; i < 200; i++) CHECK(core_is(p[i], (uint8_t)i, 1 + i)); /* none lies in another */
    for (i = 0; i < 200; i++) hlsnap__lx_release(p[i], 1 + i);
    k = core_used();
    for (i = 0; i < 200; i++) p[i] = (uint8_t *)hlsnap__lx_alloc(1 + i);
    CHECK_EQ(core_used(), k); /* the same again */
    for (i = 0; i < 200; i++) CHECK(core_is(p[i], 0, 1 + i));
    CHECK_EQ(hlsnap__lx_class(32), 0);
    CHECK_EQ(hlsnap__lx_class(33), 1);
    CHECK_EQ(hlsnap__lx_class(4096), 7);
    CHECK_EQ(hlsnap__lx_class(4097), 8);
    p[0] = (uint8_t *)hlsnap__lx_alloc(5000);
    CHECK_EQ(core_used(), k + 2);
    CHECK(hlsnap__lx_pages_grow(p[0], 8192, 8000)); /* no more pages */
    CHECK(!hlsnap__lx_pages_grow(p[0], 8192, 8193) || core_used() == k + 3);
    hlsnap__lx_release(NULL, 5000);
    hlsnap__lx_release(NULL, 5);
    CHECK(k > used);
}

/* ---- time ---- */

static uint64_t core_time(int clock) {
    uint64_t t[2] = {0, 0};
    CHECK_EQ(sys(SYS_clock_gettime, clock, t), 0);
    CHECK(t[1] < 1000000000);
    return t[0] * 1000000000 + t[1];
}
static hlsnap_abi_mailbox *core_mailbox(void) { return (hlsnap_abi_mailbox *)(void *)lx.mailbox; }

static void clocks_go_on(void) {
    uint64_t real, mono, t[2];
    core_begin();
    real = core_time(0);
    CHECK(real - 1700000000ull * 1000000000u < 10000);
    mono = core_time(1);
    CHECK(mono - 1000000000 < 10000); /* begins at a second */
    lx_tsc += 5000;
    real = core_time(0) - real; /* each question had a nanosecond while the counter stood */
    CHECK(real > 4900 && real < 5100);
    mono = core_time(1) - mono;
    CHECK(mono > 4900 && mono < 5100);
    mono = core_time(1);
    CHECK(core_time(1) > mono); /* no two are the same */
    real = core_time(0);
    CHECK(core_time(0) > real);
    lx_identity->tsc_scale = 1ull << 31; /* half a nanosecond a tick */
    mono = core_time(1);
    lx_tsc += 1000000;
    CHECK(core_time(1) - mono < 510000);
    CHECK_EQ(sys(SYS_gettimeofday, t, 0), 0);
    CHECK(t[0] == 1700000000 && t[1] < 1000000);
    CHECK_EQ(sys(SYS_gettimeofday, 0, 0), 0);
    CHECK_EQ(sys(SYS_time, t), 1700000000);
    CHECK_EQ(t[0], 1700000000);
    CHECK_EQ(sys(SYS_times, 0), 100);
}

/* Neither sleep nor what lies between two entries is work. */
static void clocks_of_work(void) {
    static const int clocks[] = {2, 3, -6, -2};
    const uint64_t hour = 3600ull * 1000000000u;
    uint64_t t[18], before, mono;
    size_t i;
    core_begin();
    CHECK(core_time(2) < 100000);
    lx_tsc += 5000000;
    for (i = 0; i < HLSNAP_COUNT(clocks); i++) CHECK(core_time(clocks[i]) > 4900000 && core_time(clocks[i]) < 5100000);
    before = core_time(2);
    mono = core_time(1);
    t[0] = 3600;
    t[1] = 0;
    CHECK_EQ(sys(SYS_nanosleep, t, 0), 0);
    CHECK(core_time(1) >= mono + hour && core_time(2) > before && core_time(2) < before + 100000);
    core_mailbox()->realtime_ns += 3 * hour;
    lx_tsc = hlsnap__lx.entry_tsc = 0;
    hlsnap__lx_arrive();
    CHECK(core_time(1) >= mono + 2 * hour && core_time(2) > before && core_time(2) < before + 200000);
    core_mailbox()->realtime_ns -= 2 * hour; /* a machine whose clock is behind */
    lx_restart();
    lx_tsc += 7000000;
    CHECK(core_time(2) > before + 6900000 && core_time(2) < before + 7300000);
    CHECK_EQ(sys(SYS_getrusage, 0, t), 0);
    CHECK(t[0] == 0 && t[1] > 11000 && t[1] < 13000); /* us */
    CHECK(sys(SYS_times, t) > 3600 * 100 && t[0] == 1);
    hlsnap__lx.entry_tsc = 0;
}

static void clocks_after_restores(void) {
    uint64_t real, mono, later;
    core_begin();
    lx_tsc += 50000;
    real = core_time(0);
    mono = core_time(1);
    core_mailbox()->realtime_ns -= 3600ull * 1000000000u; /* a machine whose clock is behind, and another counter */
    lx_tsc = hlsnap__lx.entry_tsc = 77;
    lx_restart();
    CHECK(core_time(0) > real);
    later = core_time(1);
    CHECK(later > mono && later < mono + 1000);
    lx_tsc += 1000000; /* at the clock's pace, not at that of questions */
    later = core_time(1) - later;
    CHECK(later > 999900 && later < 1000100);
    mono = core_time(1);
    core_mailbox()->realtime_ns += 7200ull * 1000000000u; /* and one that is ahead */
    lx_tsc = hlsnap__lx.entry_tsc = 0;
    lx_restart();
    later = core_time(1);
    CHECK(later > mono + 3600ull * 1000000000u);
    CHECK(core_time(0) / 1000000000 == 1700000000 + 3600);
    hlsnap__lx.entry_tsc = 0;
}

static void no_clock_counts(void) {
    uint64_t a;
    lx_begin(1 << 20, NULL, 0);
    core_mailbox()->realtime_ns = 0;
    memset(&hlsnap__lx.clock, 0, sizeof(hlsnap__lx.clock));
    CHECK_EQ(core_time(1), 1000);
    CHECK_EQ(core_time(0), 2000);
    CHECK_EQ(core_time(1), 3000);
    lx_tsc += 1000000000;
    CHECK_EQ(core_time(1), 4000);
    a = core_time(1);
    lx_restart();
    CHECK_EQ(core_time(1), a + 1000);
    core_mailbox()->realtime_ns = 5;
    lx_identity->tsc_scale = 0; /* a counter of unknown rate */
    a = core_time(0);
    CHECK(core_time(0) > a);
}

static void sleeping_jumps(void) {
    const uint64_t long_time[2] = {100, 5}, none[2] = {0, 0}, bad[2] = {0, 1000000000}, negative[2] = {UINT64_MAX, 0};
    uint64_t real, mono, at[2];
    core_begin();
    real = core_time(0);
    mono = core_time(1);
    CHECK_EQ(sys(SYS_nanosleep, long_time, 0), 0);
    CHECK(core_time(1) - mono >= 100000000005 && core_time(1) - mono < 100000100000);
    CHECK(core_time(0) - real > 99999999000 && core_time(0) - real < 100000100000);
    CHECK_EQ(sys(SYS_nanosleep, none, 0), 0);
    CHECK_EQ(sys(SYS_nanosleep, bad, 0), -EINVAL);
    CHECK_EQ(sys(SYS_nanosleep, negative, 0), -EINVAL);
    CHECK_EQ(sys(SYS_nanosleep, 0, 0), -EFAULT);
    at[0] = 1000;
    at[1] = 0;
    CHECK_EQ(sys(SYS_clock_nanosleep, 1, 1, at, 0), 0); /* until */
    CHECK(core_time(1) / 1000000000 == 1000);
    CHECK_EQ(sys(SYS_clock_nanosleep, 1, 1, at, 0), 0); /* which is over */
    CHECK(core_time(1) / 1000000000 == 1000);
    mono = core_time(1);
    hlsnap__lx_arrive(); /* the wall clock's jump was this entry's only, but it does not go back */
    CHECK(core_time(1) > mono);
    CHECK(core_time(0) > real + 99999999000);
    core_mailbox()->realtime_ns += 2000ull * 1000000000u; /* the host's clock has come past it: there is no jump any more */
    hlsnap__lx_arrive();
    CHECK_EQ(core_time(0) / 1000000000, 1700000000 + 2000);
}

static void clock_numbers(void) {
    uint64_t t[2], i;
    core_begin();
    for (i = 0; i < 12; i++) {
        CHECK_EQ(sys(SYS_clock_gettime, i, t), 0);
        CHECK_EQ(t[0] >= 1700000000, i == 0 || i == 5 || i == 11);
        CHECK_EQ(sys(SYS_clock_getres, i, t), 0);
        CHECK(t[0] == 0 && t[1] == 1);
    }
    CHECK_EQ(sys(SYS_clock_gettime, 12, t), -EINVAL);
    CHECK_EQ(sys(SYS_clock_getres, 12, t), -EINVAL);
    CHECK_EQ(sys(SYS_clock_gettime, (uint32_t)-6, t), 0); /* CPU time of a process: an int, however it comes */
    CHECK_EQ(sys(SYS_clock_gettime, -6, t), 0);
    CHECK(t[0] < 1700000000);
    CHECK_EQ(sys(SYS_clock_getres, 1, 0), 0);
    CHECK_EQ(hlsnap__lx_timespec(0, 1), UINT64_MAX);
    t[0] = 1ull << 34;
    t[1] = 0;
    CHECK_EQ(hlsnap__lx_timespec(S(t), 1), UINT64_MAX);
    t[0] = 3;
    t[1] = 999999;
    CHECK_EQ(hlsnap__lx_timespec(S(t), 1000), 3999999000ull);
    t[1] = 1000000;
    CHECK_EQ(hlsnap__lx_timespec(S(t), 1000), UINT64_MAX - 1);
}

/* ---- random bytes ---- */

static uint32_t core_rotl(uint32_t v, int n) { return v << n | v >> (32 - n); }
static void core_quarter(uint32_t *s, int a, int b, int c, int d) {
    s[a] += s[b], s[d] = core_rotl(s[d] ^ s[a], 16);
    s[c] += s[d], s[b] = core_rotl(s[b] ^ s[c], 12);
    s[a] += s[b], s[d] = core_rotl(s[d] ^ s[a], 8);
    s[c] += s[d], s[b] = core_rotl(s[b] ^ s[c], 7);
}
static void core_chacha(uint32_t out[16], const uint8_t key[32], const uint32_t tail[4]) {
    uint32_t s[16];
    int i;
    memcpy(s, "expand 32-byte k", 16);
    memcpy(s + 4, key, 32);
    memcpy(s + 12, tail, 16);
    memcpy(out, s, 64);
    for (i = 0; i < 10; i++) {
        core_quarter(out, 0, 4, 8, 12), core_quarter(out, 1, 5, 9, 13), core_quarter(out, 2, 6, 10, 14), core_quarter(out, 3, 7, 11, 15);
        core_quarter(out, 0, 5, 10, 15), core_quarter(out, 1, 6, 11, 12), core_quarter(out, 2, 7, 8, 13), core_quarter(out, 3, 4, 9, 14);
    }
    for (i = 0; i < 16; i++) out[i] += s[i];
}

static void random_is_chacha(void) {
    static const uint8_t rfc8439[16] = {0x10, 0xf1, 0xe7, 0xe4, 0xd1, 0x3b, 0x59, 0x15, 0x50, 0x0f, 0xdd, 0x1f, 0xa3, 0x20, 0x71, 0xc4};
    const uint32_t tail[4] = {1, 0x09000000, 0x4a000000, 0};
    uint32_t want[16], ours[4] = {5, 7, 0x6c78, 1}, got[16];
    uint8_t key[32];
    unsigned i;
    for (i = 0; i < 32; i++) key[i] = (uint8_t)i;
    core_chacha(want, key, tail);
    CHECK(memcmp(want, rfc8439, 16) == 0); /* the reference is one */
    core_begin();
    memcpy(lx_identity->entropy, key, 32);
    hlsnap__lx_random_block(got, 7ull << 32 | 5);
    core_chacha(want, key, ours);
    CHECK(memcmp(got, want, 64) == 0);
}

static void random_never_repeats(void) {
    static uint8_t all[8192];
    uint8_t was[64];
    size_t i, k;
    core_begin();
    for (i = 0; i < 4096; i += 64) CHECK_EQ(sys(SYS_getrandom, all + i, 64, 0), 64);
    CHECK_EQ(sys(SYS_getrandom, all + 4096, 4096, 0), 4096);
    for (i = 0; i < 8192; i += 64)
        for (k = 0; k < i; k += 64) CHECK(memcmp(all + i, all + k, 64) != 0);
    CHECK_EQ(sys(SYS_getrandom, all, 0, 0), 0);
    memset(was, 0x5a, sizeof(was));
    CHECK_EQ(sys(SYS_getrandom, was, 5, 0), 5);
    CHECK(core_is(was + 5, 0x5a, 59)); /* and no more */
    core_begin();
    CHECK_EQ(sys(SYS_getrandom, was, 64, 0), 64);
    CHECK(memcmp(was, all, 64) != 0 || !core_is(was, 0, 64)); /* the same identity: the same bytes may come */
    lx_restart();
    CHECK_EQ(sys(SYS_getrandom, all, 64, 0), 64);
    CHECK(memcmp(was, all, 64) != 0);
}

/* ---- who the program is ---- */

static void sigaction_remembers(void) {
    uint64_t act[4] = {1, 2, 3, 4}, old[5] = {9, 9, 9, 9, 9}, set = 0x1ff, was = 0;
    core_begin();
    CHECK_EQ(sys(SYS_rt_sigaction, 10, act, old, 8), 0);
    CHECK(core_is((uint8_t *)old, 0, 32) && old[4] == 9);
    CHECK_EQ(sys(SYS_rt_sigaction, 10, 0, old, 8), 0);
    CHECK(memcmp(old, act, 32) == 0);
    CHECK_EQ(sys(SYS_rt_sigaction, 64, act, 0, 8), 0);
    CHECK_EQ(sys(SYS_rt_sigaction, 65, act, 0, 8), -EINVAL);
    CHECK_EQ(sys(SYS_rt_sigaction, 0, act, 0, 8), -EINVAL);
    CHECK_EQ(sys(SYS_rt_sigaction, 10, act, 0, 4), -EINVAL);
    CHECK_EQ(sys(SYS_rt_sigaction, 9, act, 0, 8), -EINVAL);
    CHECK_EQ(sys(SYS_rt_sigaction, 19, act, 0, 8), -EINVAL);
    CHECK_EQ(sys(SYS_rt_sigaction, 9, 0, old, 8), 0);
    CHECK_EQ(sys(SYS_rt_sigprocmask, 2, &set, &was, 8), 0);
    CHECK_EQ(was, 0);
    CHECK_EQ(sys(SYS_rt_sigprocmask, 1, &set, &was, 8), 0);
    CHECK_EQ(was, 0xff); /* KILL cannot be blocked */
    set = 2;
    CHECK_EQ(sys(SYS_rt_sigprocmask, 0, &set, &was, 8), 0);
    CHECK_EQ(was, 0);
    CHECK_EQ(sys(SYS_rt_sigprocmask, 7, 0, &was, 8), 0);
    CHECK_EQ(was, 2);
    CHECK_EQ(sys(SYS_rt_sigprocmask, 3, &set, 0, 8), -EINVAL);
    CHECK_EQ(sys(SYS_rt_sigprocmask, 0, &set, 0, 4), -EINVAL);
    CHECK_EQ(sys(SYS_sigaltstack, 0, old), 0);
    CHECK_EQ((int)old[1], 2); /* SS_DISABLE */
    act[0] = 0x5000;
    act[1] = 0;
    act[2] = 65536;
    CHECK_EQ(sys(SYS_sigaltstack, act, old), 0);
    CHECK_EQ((int)old[1], 2);
    CHECK_EQ(sys(SYS_sigaltstack, 0, old), 0);
    CHECK(old[0] == 0x5000 && (int)old[1] == 0 && old[2] == 65536);
    act[2] = 10;
    CHECK_EQ(sys(SYS_sigaltstack, act, 0), -ENOMEM);
    act[1] = 77;
    CHECK_EQ(sys(SYS_sigaltstack, act, 0), -EINVAL);
    act[1] = 2;
    CHECK_EQ(sys(SYS_sigaltstack, act, old), 0);
    CHECK_EQ(old[2], 65536);
    CHECK_EQ(sys(SYS_sigaltstack, 0, old), 0);
    CHECK(old[0] == 0 && (int)old[1] == 2 && old[2] == 0);
    CHECK_EQ(sys(SYS_rt_sigpending, old, 8), 0);
    CHECK_EQ(old[0], 0);
    act[0] = 1;
    act[1] = 0;
    CHECK_EQ(sys(SYS_rt_sigtimedwait, &set, 0, act, 8), -EAGAIN); /* after a second that costs nothing */
    CHECK(ENDS(sys(SYS_pause))); /* nothing will ever wake it */
    CHECK_EQ(lx_request.number, -7);
    core_begin();
    CHECK(ENDS(sys(SYS_rt_sigsuspend, &set, 8)));
    CHECK_EQ(lx_request.number, -7);
}

static void signals_to_itself(void) {
    uint64_t act[4] = {1, 0, 0, 0};
    int64_t pid;
    core_begin();
    pid = sys(SYS_getpid);
    CHECK_EQ(sys(SYS_kill, pid, 0), 0);
    CHECK_EQ(sys(SYS_kill, 0, 0), 0);
    CHECK_EQ(sys(SYS_kill, -pid, 0), 0);
    CHECK_EQ(sys(SYS_kill, pid + 2, 0), -ESRCH);
    CHECK_EQ(sys(SYS_kill, 1, 9), -ESRCH);
    CHECK_EQ(sys(SYS_kill, pid, 65), -EINVAL);
    CHECK_EQ(sys(SYS_kill, pid, 17), 0); /* CHLD, CONT, URG, WINCH are ignored */
    CHECK_EQ(sys(SYS_kill, pid, 18), 0);
    CHECK_EQ(sys(SYS_kill, pid, 23), 0);
    CHECK_EQ(sys(SYS_kill, pid, 28), 0);
    CHECK_EQ(sys(SYS_rt_sigaction, 13, act, 0, 8), 0);
    CHECK_EQ(sys(SYS_tkill, pid, 13), 0); /* SIG_IGN */
    CHECK_EQ(sys(SYS_tkill, pid + 1, 6), -ESRCH);
    CHECK_EQ(sys(SYS_tgkill, pid + 1, pid, 6), -ESRCH);
    CHECK_EQ(sys(SYS_tgkill, pid, 3, 0), -ESRCH);
    CHECK_EQ(sys(SYS_tgkill, pid, pid, 0), 0);
    CHECK_EQ(sys(SYS_tgkill, pid, -1, 0), -EINVAL);
    CHECK(ENDS(sys(SYS_tgkill, pid, pid, 6)));
    CHECK_EQ(lx_request.function, HLSNAP_ABI_FN_ABORT);
    CHECK_EQ(lx_request.number, -3);
    CHECK_STR(lx_request.text, "abort() called");
    core_begin();
    pid = sys(SYS_gettid);
    lx_restart(); /* a libc knows the number that the thread had */
    CHECK(sys(SYS_gettid) != pid);
    CHECK(ENDS(sys(SYS_tkill, pid, 6)));
    CHECK_EQ(lx_request.number, -3);
    core_begin();
    CHECK(ENDS(sys(SYS_kill, 0, 15)));
    CHECK_EQ(lx_request.number, -6);
    CHECK_STR(lx_request.text, "the program sent itself signal 15");
    core_begin();
    act[0] = 0x1234;
    CHECK_EQ(sys(SYS_rt_sigaction, 17, act, 0, 8), 0);
    CHECK(ENDS(sys(SYS_kill, 0, 17))); /* it waits for it */
}

static void names_and_numbers(void) {
    char name[17] = "xxxxxxxxxxxxxxxx";
    struct utsname u;
    uint32_t id[3] = {0, 0, 0};
    int64_t pid;
    core_begin();
    CHECK_EQ(sys(SYS_prctl, 15, "a name that is too long"), 0);
    CHECK_EQ(sys(SYS_prctl, 16, name), 0);
    CHECK_STR(name, "a name that is ");
    CHECK_EQ(sys(SYS_prctl, 15, "b"), 0);
    CHECK_EQ(sys(SYS_prctl, 16, name), 0);
    CHECK(core_is((uint8_t *)name + 1, 0, 15));
    CHECK_EQ(sys(SYS_prctl, 38, 1), 0);
    CHECK_EQ(sys(SYS_prctl, 999, 1), -EINVAL);
    CHECK_EQ(sys(SYS_uname, &u), 0);
    CHECK_STR(u.sysname, "Linux");
    CHECK_STR(u.nodename, "guest");
    CHECK_STR(u.release, "6.1.0");
    CHECK_STR(u.machine, "x86_64");
    pid = sys(SYS_getpid);
    CHECK(pid > 1 && pid < 1 << 22 && pid % 2 == 0);
    CHECK_EQ(sys(SYS_gettid), pid);
    CHECK_EQ(sys(SYS_getppid), 0);
    CHECK_EQ(sys(SYS_getpgrp), pid);
    lx_identity->id[0] = 0x77;
    hlsnap__lx_arrive();
    CHECK(sys(SYS_getpid) != pid);
    CHECK_EQ(sys(SYS_getuid) + sys(SYS_geteuid) + sys(SYS_getgid) + sys(SYS_getegid), 4000);
    CHECK_EQ(sys(SYS_getresuid, id, id + 1, id + 2), 0);
    CHECK(id[0] == 1000 && id[1] == 1000 && id[2] == 1000);
    CHECK_EQ(sys(SYS_setuid, 1000), 0);
    CHECK_EQ(sys(SYS_setuid, 0), -EPERM);
    CHECK_EQ(sys(SYS_setresgid, -1, 1000, -1), 0);
    CHECK_EQ(sys(SYS_setresgid, -1, 1000, 5), -EPERM);
    CHECK_EQ(sys(SYS_setreuid, 1000, 5), -EPERM);
    CHECK_EQ(sys(SYS_fork), -EPERM);
    CHECK_EQ(sys(SYS_vfork), -EPERM);
    CHECK_EQ(sys(SYS_execve, "/f", 0, 0), -EPERM);
    CHECK_EQ(sys(SYS_wait4, -1, 0, 0, 0), -ECHILD);
}

static void limits_and_usage(void) {
    uint64_t l[2], mask[3] = {9, 9, 9}, u[18], s[14], fs = 0;
    core_begin();
    hlsnap__lx_stack_size = 1 << 20;
    CHECK_EQ(sys(SYS_getrlimit, RLIMIT_STACK, l), 0);
    CHECK(l[0] == 1 << 20 && l[1] == 1 << 20);
    CHECK_EQ(sys(SYS_prlimit64, 0, RLIMIT_NOFILE, 0, l), 0);
    CHECK_EQ(l[0], 1024);
    CHECK_EQ(sys(SYS_prlimit64, 0, RLIMIT_AS, 0, l), 0);
    CHECK_EQ(l[0], 1 << 20);
    CHECK_EQ(sys(SYS_getrlimit, RLIMIT_NPROC, l), 0);
    CHECK_EQ(l[0], 64);
    CHECK_EQ(sys(SYS_getrlimit, RLIMIT_CORE, l), 0);
    CHECK_EQ(l[0], 0);
    CHECK_EQ(sys(SYS_getrlimit, RLIMIT_CPU, l), 0);
    CHECK_EQ(l[0], UINT64_MAX);
    CHECK_EQ(sys(SYS_getrlimit, 16, l), -EINVAL);
    CHECK_EQ(sys(SYS_prlimit64, 0, 3, l, 0), 0);
    CHECK_EQ(sys(SYS_sched_getaffinity, 0, 24, mask), 8);
    CHECK(mask[0] == 1 && mask[1] == 9);
    CHECK_EQ(sys(SYS_sched_getaffinity, 0, 4, mask), -EINVAL);
    CHECK_EQ(sys(SYS_sched_getaffinity, 0, 12, mask), -EINVAL);
    CHECK_EQ(sys(SYS_getrusage, 0, u), 0);
    CHECK_EQ(u[4], hlsnap__lx.peak * 4);
    CHECK_EQ(sys(SYS_sysinfo, s), 0);
    CHECK(s[4] == 1 << 20 && s[5] == (256 - core_used()) * 4096);
    CHECK_EQ(sys(SYS_arch_prctl, 0x1002, 0x123456), 0);
    CHECK_EQ(sys(SYS_arch_prctl, 0x1003, &fs), 0);
    CHECK_EQ(fs, 0x123456);
    CHECK_EQ(sys(SYS_arch_prctl, 0x1002, 1ull << 47), -EPERM);
    CHECK_EQ(sys(SYS_arch_prctl, 0x1001, 0), -EINVAL);
}

/* ---- calls that are refused ---- */

static void refused_once_in_the_log(void) {
    int n, i;
    core_begin();
    n = lx_request.count;
    CHECK_EQ(sys(SYS_socket, 1, 2, 3), -ENOSYS);
    CHECK_EQ(lx_request.count, n + 1);
    CHECK_EQ(lx_request.function, HLSNAP_ABI_FN_LOG);
    CHECK_EQ(lx_request.number, 2);
    CHECK_STR(lx_request.text, "system call socket (41) is not in a guest: ENOSYS");
    for (i = 0; i < 3; i++) CHECK_EQ(sys(SYS_socket, 1, 2, 3), -ENOSYS);
    CHECK_EQ(lx_request.count, n + 1);
    CHECK_EQ(sys(SYS_sendfile, 1, 0, 0, 1), -ENOSYS); /* unsaid, as programs try these and go on without */
    CHECK_EQ(sys(SYS_copy_file_range, 0, 0, 1, 0, 1, 0), -ENOSYS);
    CHECK_EQ(sys(SYS_clone3, 0, 0), -ENOSYS);
    CHECK_EQ(sys(SYS_set_robust_list, &n, 24), -ENOSYS); /* by which libcs know that there are no robust mutexes */
    CHECK_EQ(sys(SYS_get_robust_list, 0, 0, 0), -ENOSYS);
    CHECK_EQ(sys(SYS_rseq, 0, 0, 0, 0), -ENOSYS);
    CHECK_EQ(sys(510), -ENOSYS);
    CHECK(strstr(lx_request.text, "(510)"));
    CHECK_EQ(sys(511), -ENOSYS);
    CHECK(strstr(lx_request.text, "(511)"));
    CHECK_EQ(sys(70000), -ENOSYS); /* all from 511 on count as one */
    CHECK_EQ(sys(UINT64_MAX), -ENOSYS);
    CHECK_EQ(lx_request.count, n + 3);
    CHECK(ENDS(sys(SYS_exit_group, 3)));
    CHECK_EQ(lx_request.function, HLSNAP_ABI_FN_EXIT);
    CHECK_EQ(lx_request.number, 3);
    CHECK(strncmp(lx_request.text, "exit 3; refused: socket (41), ", 30) == 0 && strstr(lx_request.text, "(510), ") && strstr(lx_request.text, "(511)"));
    core_begin();
    CHECK_EQ(sys(1ull << 40), -ENOSYS); /* not what its lower half says */
    CHECK(strstr(lx_request.text, "(1099511627776)"));
    CHECK(ENDS(sys(SYS_exit_group, -1)));
    CHECK(strncmp(lx_request.text, "exit -1; refused: ", 18) == 0 && strstr(lx_request.text, "(65535)"));
    core_begin();
    lx_identity->log_level = 1;
    n = lx_request.count;
    CHECK_EQ(sys(SYS_socket, 1, 2, 3), -ENOSYS);
    CHECK_EQ(lx_request.count, n);
    core_begin();
    for (i = 445; i < 511; i++) CHECK_EQ(sys((unsigned)i), -ENOSYS); /* more than the list holds */
    CHECK_EQ(hlsnap__lx.num_refused, HLSNAP_COUNT(hlsnap__lx.refused_list));
    n = lx_request.count;
    for (i = 41; i < 56; i++) CHECK_EQ(sys((unsigned)i), -ENOSYS); /* sockets and so on: what lies behind the list is as it was */
    CHECK_EQ(lx_request.count, n + 15);
    CHECK(ENDS(sys(SYS_exit_group, 0)));
    CHECK(strlen(lx_request.text) <= 252);
    core_begin();
    CHECK(ENDS(sys(SYS_exit_group, 0)));
    CHECK_STR(lx_request.text, "exit 0");
}

static void strict_ends_with_the_name(void) {
    core_begin();
    lx_identity->options |= HLSNAP_ABI_OPTION_STRICT;
    CHECK_EQ(sys(SYS_getpid) > 0, 1);
    CHECK(ENDS(sys(SYS_socket, 1, 2, 3)));
    CHECK_EQ(lx_request.function, HLSNAP_ABI_FN_ABORT);
    CHECK_EQ(lx_request.number, -6);
    CHECK_STR(lx_request.text, "system call socket (41) is not in a guest");
}

/* ---- what goes to the host ---- */

static void output_comes_in_pieces(void) {
    static char text[10001];
    int i, n;
    core_begin();
    for (i = 0; i < 10000; i++) text[i] = (char)('a' + i % 26);
    core_mailbox()->out_size = 2048;
    n = lx_request.count;
    CHECK_EQ(sys(SYS_write, 1, text, 10000), 10000);
    CHECK_EQ(lx_request.count - n, 6); /* of 2048 - 64 bytes */
    CHECK_EQ(lx_out_size[1], 10000);
    CHECK_STR(lx_out[1], text);
    CHECK_EQ(lx_out_size[2], 0);
    CHECK_EQ(sys(SYS_write, 2, "x", 1), 1);
    CHECK_STR(lx_out[2], "x");
    n = lx_request.count;
    CHECK_EQ(sys(SYS_write, 1, text, 0), 0);
    CHECK_EQ(lx_request.count, n);
    lx_identity->options &= ~(unsigned)HLSNAP_ABI_OPTION_OUTPUT; /* nobody listens */
    CHECK_EQ(sys(SYS_write, 1, text, 10), 10);
    CHECK_EQ(lx_request.count, n);
}

static void requests_go_behind_results(void) {
    hlsnap__rt_state *rt = (hlsnap__rt_state *)(void *)lx.runtime;
    hlsnap_call call;
    core_begin();
    memset(lx.mailbox + 4096, 0x77, 200);
    hlsnap__lx.out_used = 104;
    CHECK_EQ(sys(SYS_write, 1, "out", 3), 3);
    CHECK_EQ(core_mailbox()->request, 4096 + 104);
    CHECK(core_is(lx.mailbox + 4096, 0x77, 104));
    memset(&call, 0, sizeof(call)); /* an export is in progress, with results of its own */
    call.out = lx.mailbox + 4096;
    call.used = 64;
    rt->call = &call;
    CHECK_EQ(sys(SYS_write, 1, "out", 3), 3);
    CHECK_EQ(core_mailbox()->request, 4096 + 64);
    CHECK(core_is(lx.mailbox + 4096, 0x77, 64));
    CHECK_STR(lx_out[1], "outout");
}

/* ---- the stack that a program starts on ---- */

static uint64_t core_aux(const uint64_t *aux, uint64_t type) {
    for (; aux[0]; aux += 2)
        if (aux[0] == type) return aux[1];
    return UINT64_MAX;
}

static void core_stack(uint32_t args, uint32_t envs, size_t each, bool phdr) {
    const size_t size = (size_t)(args + envs) * (each + 1), room = size + (args + envs) * 8 + 4096;
    uint8_t *block = (uint8_t *)calloc(1, sizeof(hlsnap_abi_program) + size), *stack = (uint8_t *)malloc(room + 64);
    hlsnap_abi_program *p = (hlsnap_abi_program *)(void *)block;
    char *s = (char *)block + sizeof(*p);
    uint8_t *end = (uint8_t *)(uintptr_t)((S(stack) + room + 15) & ~15ull);
    const uint64_t *sp, *aux;
    uint64_t i;
    memset(stack, 0x33, room + 64);
    memset(s, 'v', size);
    for (i = 0; i < args + envs; i++) s[i * (each + 1) + each] = 0;
    p->entry = 0x401000;
    p->phdr = phdr ? 0x400040 : 0;
    p->num_phdr = 9;
    p->num_args = args;
    p->num_env = envs;
    p->strings = sizeof(*p);
    p->strings_size = size;
    p->stack_size = 123 << 12;
    core_begin();
    lx_identity->program = S(block);
    sp = (const uint64_t *)(uintptr_t)hlsnap__lx_stack_make(S(end));
    CHECK(S(sp) % 16 == 0 && S(sp) > S(stack));
    CHECK_EQ(sp[0], args);
    for (i = 0; i < args; i++) CHECK(sp[1 + i] > S(sp) && sp[1 + i] == sp[1] + i * (each + 1));
    CHECK_EQ(sp[1 + args], 0);
    for (i = 0; i < envs; i++) CHECK(strlen((const char *)(uintptr_t)sp[2 + args + i]) == each);
    CHECK_EQ(sp[2 + args + envs], 0);
    aux = sp + 3 + args + envs;
    CHECK_EQ(core_aux(aux, 3), phdr ? 0x400040 : UINT64_MAX); /* AT_PHDR, AT_PHENT, AT_PHNUM, AT_PAGESZ, AT_ENTRY */
    CHECK_EQ(core_aux(aux, 4), phdr ? 56 : UINT64_MAX);
    CHECK_EQ(core_aux(aux, 5), phdr ? 9 : UINT64_MAX);
    CHECK_EQ(core_aux(aux, 6), 4096);
    CHECK_EQ(core_aux(aux, 9), 0x401000);
    CHECK_EQ(core_aux(aux, 11) + core_aux(aux, 12) + core_aux(aux, 13) + core_aux(aux, 14), 4000);
    CHECK_EQ(core_aux(aux, 17), 100);
    CHECK_EQ(core_aux(aux, 23), 0);
    CHECK_STR((const char *)(uintptr_t)core_aux(aux, 15), "x86_64");
    CHECK(core_aux(aux, 25) > S(sp) && core_aux(aux, 25) + 16 <= S(end));
    CHECK(!core_is((uint8_t *)(uintptr_t)core_aux(aux, 25), 0x33, 16)); /* AT_RANDOM */
    if (args) CHECK_EQ(core_aux(aux, 31), sp[1]);
    while (aux[0]) aux += 2;
    CHECK(!size || S(aux + 2) <= sp[1 + (args ? 0 : 1)]); /* the strings lie behind all that */
    for (i = 0; i < size; i++) CHECK(((const char *)(uintptr_t)(args ? sp[1] : sp[2]))[i] == (i % (each + 1) == each ? 0 : 'v'));
    CHECK(core_is(end, 0x33, (size_t)(stack + room + 64 - end)) && core_is((const uint8_t *)sp - 16, 0x33, 16)); /* and nothing beyond */
    CHECK_EQ(hlsnap__lx_stack_size, 123 << 12);
    free(block);
    free(stack);
}

static void the_first_stack(void) {
    uint32_t args, envs;
    for (args = 1; args < 6; args++)
        for (envs = 0; envs < 4; envs++) core_stack(args, envs, args * 3 + envs, envs & 1);
    core_stack(0, 3, 5, true);
    core_stack(0, 0, 0, false);
    core_stack(2000, 1000, 30, true);
    core_stack(1, 0, 100000, true);
    core_stack(3000, 3000, 0, true);
}

#define LX_CORE_TESTS \
    TEST(mmap_places), TEST(mmap_refuses), TEST(memory_is_zero_again), TEST(unmapping_spares_files), TEST(reservations_stay_untouched), \
    TEST(mremap_moves), TEST(dontneed_zeroes), TEST(advice_that_is_none), TEST(wipe_on_fork), TEST(wiped_pages_move), \
    TEST(shared_mappings_are_the_file), TEST(shared_mappings_of_two), TEST(mapped_files_grow), TEST(mapped_far_beyond), TEST(private_copies_of_files), TEST(brk_meets_mappings), \
    TEST(brk_leaves_what_is_not_its_own), \
    TEST(memory_runs_out), TEST(trim_forgets), TEST(small_blocks), TEST(clocks_go_on), TEST(clocks_of_work), TEST(clocks_after_restores), TEST(no_clock_counts), \
    TEST(sleeping_jumps), TEST(clock_numbers), TEST(random_is_chacha), TEST(random_never_repeats), TEST(sigaction_remembers), \
    TEST(signals_to_itself), TEST(names_and_numbers), TEST(limits_and_usage), TEST(refused_once_in_the_log), TEST(strict_ends_with_the_name), \
    TEST(output_comes_in_pieces), TEST(requests_go_behind_results), TEST(the_first_stack)
#endif

/* test_linux_maps.h - mappings, against the kernel: random maps of memory and files, pieces of which go, are written, moved and looked
   at, with files that grow meanwhile. Part of test_linux.c.

   Each map is there twice: [0] the personality's, [1] the kernel's. Not asked for, as they differ: what lies behind the end of a
   file, files that shrink under a map, and private maps of files that change. */
#ifndef TEST_LINUX_MAPS_H
#define TEST_LINUX_MAPS_H

enum { MAPS_FIXED_FILE = 2, MAPS_ANON = 3, MAPS_GONE = 4, MAPS_MOST = 12, MAPS_PAGES = 8 };

static struct maps_one { uint8_t *at[2]; uint32_t pages, file, page, written, there; bool shared; } maps[MAPS_MOST];
static uint32_t maps_num;
static int maps_fd[2][3];
static uint8_t maps_bytes[2][MAPS_PAGES * 4096];

static int64_t maps_do(int which, long number, uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t e, uint64_t f) {
    long r;
    if (!which) return sys((uint64_t)number, a, b, c, d, e, f);
    r = syscall(number, a, b, c, d, e, f);
    return r == -1 ? -errno : r;
}

static uint64_t maps_size(uint32_t file) {
    struct stat st;
    CHECK_EQ(fstat(maps_fd[1][file], &st), 0);
    return (uint64_t)st.st_size;
}

/* Whether a page may be touched. */
static bool maps_there(const struct maps_one *m, uint32_t page) {
    if (m->file == MAPS_GONE) return m->there >> page & 1;
    return m->file == MAPS_ANON || (m->page + page) * 4096ull < maps_size(m->file);
}

static void maps_add(void) {
    struct maps_one *m = &maps[maps_num];
    int which;
    if (maps_num == MAPS_MOST) return;
    m->file = (uint32_t)lx_rand(4);
    m->shared = m->file < MAPS_FIXED_FILE;
    m->pages = 1 + (uint32_t)lx_rand(MAPS_PAGES - 4);
    m->page = m->file == MAPS_ANON ? 0 : (uint32_t)lx_rand(4);
    m->written = 0;
    for (which = 0; which < 2; which++) {
        const int64_t r = maps_do(which, SYS_mmap, 0, m->pages * 4096ull - lx_rand(2) * 4000, PROT_READ | PROT_WRITE,
                                  (m->shared ? MAP_SHARED : MAP_PRIVATE) | (m->file == MAPS_ANON ? MAP_ANONYMOUS : 0),
                                  m->file == MAPS_ANON ? UINT64_MAX : (uint64_t)maps_fd[which][m->file], m->page * 4096ull);
        CHECK(r > 0 && r % 4096 == 0);
        m->at[which] = (uint8_t *)(uintptr_t)r;
    }
    maps_num++;
}

/* Some pages at one of its ends, or all. */
static void maps_remove(struct maps_one *m) {
    const uint32_t n = 1 + (uint32_t)lx_rand(m->pages), first = lx_rand(2) ? 0 : m->pages - n;
    int which;
    for (which = 0; which < 2; which++) {
        CHECK_EQ(maps_do(which, SYS_munmap, S(m->at[which] + first * 4096), n * 4096ull, 0, 0, 0, 0), 0);
        if (!first) m->at[which] += n * 4096;
    }
    if (!first) m->page += n;
    if (!first) m->written >>= n;
    if (!first) m->there >>= n;
    m->pages -= n;
    if (!m->pages) *m = maps[--maps_num];
}

static void maps_compare(const struct maps_one *m, uint32_t page) {
    if (maps_there(m, page) && !CHECK(memcmp(m->at[0] + page * 4096, m->at[1] + page * 4096, 4096) == 0))
        printf("# page %u of a map of file %u, page %u on\n", page, m->file, m->page);
}

static void maps_write(struct maps_one *m, uint32_t page) {
    const uint8_t byte = (uint8_t)lx_rand(256);
    const uint64_t at = page * 4096 + lx_rand(4096);
    if (!maps_there(m, page) || (m->shared && m->file != MAPS_GONE && m->page * 4096ull + at >= maps_size(m->file))) return;
    m->at[0][at] = m->at[1][at] = byte;
    m->written |= 1u << page;
}

static void maps_advise(struct maps_one *m, uint32_t page) {
    const int64_t advice = lx_rand(8) ? MADV_DONTNEED : -1;
    int which;
    if (m->file == MAPS_FIXED_FILE && m->written >> page & 1) return; /* would be the file's again */
    for (which = 0; which < 2; which++)
        CHECK_EQ(maps_do(which, SYS_madvise, S(m->at[which] + page * 4096), 4096, (uint64_t)advice, 0, 0, 0), advice < 0 ? -EINVAL : 0);
}

static void maps_move(struct maps_one *m) {
    const uint64_t want = 1 + lx_rand(MAPS_PAGES);
    int which;
    if (m->file != MAPS_ANON) return;
    for (which = 0; which < 2; which++) {
        const int64_t r = maps_do(which, SYS_mremap, S(m->at[which]), m->pages * 4096ull, want * 4096, 1 /* MAYMOVE */, 0, 0);
        CHECK(r > 0);
        m->at[which] = (uint8_t *)(uintptr_t)r;
    }
    m->pages = (uint32_t)want;
}

static void maps_file(void) {
    const uint32_t file = (uint32_t)lx_rand(MAPS_FIXED_FILE);
    const uint64_t at = lx_rand(4 * 4096), n = lx_rand(4096), grown = maps_size(file) + lx_rand(5000);
    const uint64_t kind = lx_rand(3);
    int which;
    memset(maps_bytes[0], (int)lx_rand(256), sizeof(maps_bytes[0]));
    if (kind == 0 && grown > MAPS_PAGES * 4096) return;
    for (which = 0; which < 2; which++) {
        const uint64_t fd = (uint64_t)maps_fd[which][file];
        if (kind == 0) CHECK_EQ(maps_do(which, SYS_ftruncate, fd, grown, 0, 0, 0, 0), 0);
        if (kind == 1) CHECK_EQ(maps_do(which, SYS_pwrite64, fd, S(maps_bytes[0]), n, at, 0, 0), n);
    }
    if (kind != 2) return;
    for (which = 0; which < 2; which++)
        CHECK_EQ(maps_do(which, SYS_pread64, (uint64_t)maps_fd[which][file], S(maps_bytes[which]), sizeof(maps_bytes[0]), 0, 0, 0),
                 maps_size(file));
    CHECK(memcmp(maps_bytes[0], maps_bytes[1], maps_size(file)) == 0);
}

static const char *const maps_names[] = {"/tmp/0", "/tmp/1", "/tmp/2"};
static void maps_open(uint32_t file) {
    maps_fd[0][file] = (int)sys(SYS_open, S(maps_names[file]), O_CREAT | O_RDWR, 0600);
    maps_fd[1][file] = (int)syscall(SYS_memfd_create, "maps", 0);
    CHECK(maps_fd[0][file] > 0 && maps_fd[1][file] > 0);
}

/* A file goes, but for what is mapped of it; another one takes its place. */
static void maps_replace(void) {
    const uint32_t file = (uint32_t)lx_rand(MAPS_FIXED_FILE);
    uint32_t i, page;
    for (i = 0; i < maps_num; i++) {
        if (maps[i].file != file) continue;
        for (page = maps[i].there = 0; page < maps[i].pages; page++) maps[i].there |= (uint32_t)maps_there(&maps[i], page) << page;
        maps[i].file = MAPS_GONE;
    }
    CHECK_EQ(sys(SYS_close, maps_fd[0][file]), 0);
    CHECK_EQ(close(maps_fd[1][file]), 0);
    CHECK_EQ(sys(SYS_unlink, S(maps_names[file])), 0);
    maps_open(file);
}

static void maps_step(void) {
    struct maps_one *m = &maps[maps_num ? lx_rand(maps_num) : 0];
    const uint32_t page = maps_num ? (uint32_t)lx_rand(m->pages) : 0;
    const uint64_t op = maps_num ? lx_rand(16) : 0;
    if (op < 3) maps_add();
    else if (op < 5) maps_remove(m);
    else if (op < 8) maps_write(m, page);
    else if (op < 10) maps_advise(m, page);
    else if (op < 11) maps_move(m);
    else if (op < 14) maps_file();
    else if (!lx_rand(10)) maps_replace();
    else maps_compare(m, page);
}

static void maps_begin(uint64_t seed) {
    uint32_t i, which;
    lx_begin(8 << 20, NULL, 0);
    lx_seed = seed;
    for (i = 0; i < sizeof(maps_bytes[0]); i++) maps_bytes[0][i] = (uint8_t)lx_rand(256);
    for (i = 0; i < 3; i++) {
        maps_open(i);
        for (which = 0; which < 2; which++)
            CHECK_EQ(maps_do((int)which, SYS_pwrite64, (uint64_t)maps_fd[which][i], S(maps_bytes[0]), i * 9000 + 100, 0, 0, 0), i * 9000 + 100);
    }
}

static void maps_are_the_kernels(void) {
    const char *const seed_text = getenv("LX_SEED"), *const num_text = getenv("LX_SEEDS");
    const uint64_t first = seed_text ? strtoull(seed_text, NULL, 0) : 1, end = first + (num_text ? strtoull(num_text, NULL, 0) : 40);
    uint64_t seed, used;
    uint32_t i, page;
    for (seed = first; seed < end && !test_bad; seed++) {
        maps_begin(seed);
        used = hlsnap__lx.num_used;
        for (i = 0; i < 1500 && !test_bad; i++) maps_step();
        for (i = 0; i < maps_num; i++)
            for (page = 0; page < maps[i].pages; page++) maps_compare(&maps[i], page);
        while (maps_num) maps_remove(&maps[0]);
        for (i = 0; i < HLSNAP__LX_SHARES; i++) CHECK_EQ(hlsnap__lx_mem.shares[i].from, hlsnap__lx_mem.shares[i].to);
        for (i = 0; i < 3; i++) close(maps_fd[1][i]);
        CHECK(hlsnap__lx.num_used <= used + 3 * (MAPS_PAGES + HLSNAP__LX_PIN_ROOM / 4096)); /* the files, with pages to spare */
        if (test_bad) printf("# seed %llu\n", (unsigned long long)seed);
    }
}

#define LX_MAPS_TESTS TEST(maps_are_the_kernels)
#endif

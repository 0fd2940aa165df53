/* test_threads.c - several threads at one pool, on the fake hypervisor, for ThreadSanitizer above all: sandboxes with a PRIVATE map
   and images, snapshots that go from hand to hand, first calls that teach. Each snapshot has a number, which whatever is seen at it
   must show. On KVM: pool_of_threads in test_kvm.c and, under attack, test_isolation.c.
   cc:  cc -std=gnu11 -I.. test_threads.c -o test_threads
   run: ./test_threads [name]     SEED=n: the same decisions again, as far as threads let them; OPS=n: so many rounds of each */
#define HLSNAP_IMPLEMENTATION
#include "guest_fake.h"
#include "test.h"

enum { THREADS = 4, SHOWN = 6, HEAP = 512, OWN = 80, IMAGES = 128, MAPPED = 8 }; /* pages; from IMAGES on lie what images show */
static char path[] = "/tmp/hlsnap-threads-XXXXXX";
static hlsnap_map map;
static hlsnap_pool *pool;

/* What all take from and put to. */
static struct { pthread_mutex_t lock; hlsnap_snapshot *s[SHOWN]; uint64_t number[SHOWN], last; } board = {PTHREAD_MUTEX_INITIALIZER, {NULL}, {0}, 0};

typedef struct worker { pthread_t thread; uint64_t random, bad, kept, images, changed; hlsnap_error err; } worker;

static uint64_t below(worker *w, uint64_t n) {
    w->random ^= w->random << 13;
    w->random ^= w->random >> 7;
    w->random ^= w->random << 17;
    return w->random % n;
}

/* One line for the first thing that is not so; checks of test.h are for one thread. */
static bool is(worker *w, bool ok, const char *what) {
    if (!ok && !TALLY(w->bad, 1)) printf("# %s: %s\n", what, w->err.msg);
    return ok;
}

static uint64_t page_at(const hlsnap_sandbox *sb, uint64_t page) { return region_gva(sb, HLSNAP__HEAP) + page * 4096; }
static uint64_t peek(worker *w, hlsnap_sandbox *sb, uint64_t gva) {
    hlsnap_value out = hlsnap_u64(UINT64_MAX);
    is(w, hlsnap_sandbox_call(sb, "peek", HLSNAP_ARGS(hlsnap_u64(gva)), &out, &w->err) == HLSNAP_OK, "peek");
    return out.as.u64;
}
static void poke(worker *w, hlsnap_sandbox *sb, uint64_t gva, uint64_t v) {
    is(w, hlsnap_sandbox_call(sb, "poke", HLSNAP_ARGS(hlsnap_u64(gva), hlsnap_bytes(&v, 8)), NULL, &w->err) == HLSNAP_OK, "poke");
}
static uint64_t map_of(worker *w, hlsnap_sandbox *sb) {
    hlsnap_value out = HLSNAP_ZERO;
    is(w, hlsnap_sandbox_call(sb, "map", HLSNAP_ARGS(hlsnap_str(map.name), hlsnap_bool(false)), &out, &w->err) == HLSNAP_OK && out.as.u64, "map");
    return out.as.u64;
}

/* What there is at a snapshot of that number: it in every page of its own, and in one of the map; nothing beyond. */
static void number_write(worker *w, hlsnap_sandbox *sb, uint64_t number) {
    uint64_t i;
    for (i = 0; i < OWN; i++) poke(w, sb, page_at(sb, i), number + i);
    poke(w, sb, map_of(w, sb) + 2 * 4096, number);
}
static void number_check(worker *w, hlsnap_sandbox *sb, uint64_t number) {
    const uint64_t some = below(w, OWN);
    is(w, peek(w, sb, page_at(sb, some)) == number + some, "a page of another snapshot's");
    is(w, peek(w, sb, map_of(w, sb) + 2 * 4096) == number, "a page of a map, of another snapshot's");
    is(w, peek(w, sb, map_of(w, sb) + 3 * 4096) == 0, "a page of a map, of another sandbox's");
    is(w, peek(w, sb, page_at(sb, IMAGES + some)) == 0 && peek(w, sb, page_at(sb, HEAP - 1)) == 0, "a page of another sandbox's");
}

static void show(worker *w, hlsnap_sandbox *sb, uint64_t number) { /* as an image, and what is written there is its own */
    const hlsnap_value args[] = {hlsnap_u64(page_at(sb, 0)), hlsnap_u64(page_at(sb, IMAGES)), hlsnap_u64(OWN * 4096), hlsnap_u32(0)};
    hlsnap_value out = HLSNAP_ZERO;
    const uint64_t some = below(w, OWN);
    const hlsnap_result r = hlsnap_sandbox_call(sb, "image", args, 4, &out, &w->err);
    if (!is(w, r == HLSNAP_OK && !*out.str, "image")) return;
    poke(w, sb, page_at(sb, IMAGES + some), 1);
    is(w, peek(w, sb, page_at(sb, some)) == number + some && peek(w, sb, page_at(sb, IMAGES + some)) == 1, "an image's page");
    is(w, peek(w, sb, page_at(sb, IMAGES + (some + 1) % OWN)) == number + (some + 1) % OWN, "another page of an image");
    w->images++;
}

static void publish(worker *w, hlsnap_sandbox *sb) { /* with another number; whoever has the old one keeps it */
    const uint64_t number = TALLY(board.last, 1000), at = below(w, SHOWN);
    hlsnap_snapshot *s = NULL;
    number_write(w, sb, number);
    if (!is(w, hlsnap_sandbox_snapshot(sb, &s, &w->err) == HLSNAP_OK, "snapshot")) return;
    pthread_mutex_lock(&board.lock);
    hlsnap_snapshot_release(board.s[at]);
    board.s[at] = s;
    board.number[at] = number;
    pthread_mutex_unlock(&board.lock);
    w->kept++;
}

/* A tenant: sees what it should, leaves what nobody else should see. */
static void tenant(worker *w, hlsnap_sandbox *sb, uint64_t number) {
    number_check(w, sb, number);
    switch (below(w, 8)) {
    case 0: publish(w, sb); break;
    case 1: case 2: show(w, sb, number); break;
    case 3: is(w, hlsnap_sandbox_call(sb, "poke", HLSNAP_ARGS(hlsnap_u64(8), hlsnap_bytes("x", 1)), NULL, &w->err) == HLSNAP_ERR_FAULT, "a fault"); return;
    case 4: hlsnap_sandbox_retire(sb); return;
    default: break;
    }
    poke(w, sb, page_at(sb, HEAP - 1), 1);
    poke(w, sb, page_at(sb, below(w, OWN)), 2);
    poke(w, sb, map_of(w, sb) + 3 * 4096, 3);
    w->changed++;
}

static void *work(void *user) {
    worker *w = (worker *)user;
    const char *ops = getenv("OPS");
    long rounds = ops ? atol(ops) : getenv("QUICK") ? 60 : 400;
    for (; rounds; rounds--) {
        const uint64_t at = below(w, SHOWN);
        hlsnap_sandbox *sb = NULL;
        hlsnap_pool_stats stats;
        hlsnap_snapshot *s;
        uint64_t number;
        pthread_mutex_lock(&board.lock);
        s = board.s[at];
        number = board.number[at];
        hlsnap_snapshot_retain(s);
        pthread_mutex_unlock(&board.lock);
        if (is(w, hlsnap_pool_acquire(pool, s, &sb, &w->err) == HLSNAP_OK, "acquire")) {
            tenant(w, sb, number);
            if (below(w, 8)) hlsnap_pool_release(pool, sb);
            else hlsnap_sandbox_destroy(sb);
        }
        if (!below(w, 16)) is(w, hlsnap_pool_prefetch(pool, s, 1, &w->err) != HLSNAP_ERR_ARG, "prefetch");
        if (!below(w, 16)) hlsnap_pool_trim(pool, below(w, 2) ? s : NULL);
        hlsnap_pool_get_stats(pool, &stats);
        hlsnap_snapshot_release(s);
    }
    return NULL;
}

/* The first snapshots, of a guest that learns: each a change of the one before, so that they share layers. */
static void board_fill(worker *w, const hlsnap_sandbox_desc *desc) {
    hlsnap_guest_desc g = fake_guest(GUEST_ALL, HEAP);
    hlsnap_sandbox *sb = NULL;
    uint32_t i;
    g.prefault = HLSNAP_PREFAULT_LEARN;
    if (!CHECK_EQ(hlsnap_sandbox_create(&g, desc, &sb, &err), HLSNAP_OK)) return;
    for (i = 0; i < SHOWN; i++) {
        board.number[i] = board.last += 1000;
        number_write(w, sb, board.number[i]);
        CHECK_EQ(hlsnap_sandbox_snapshot(sb, &board.s[i], &err), HLSNAP_OK);
    }
    board.last += 1000;
    hlsnap_sandbox_destroy(sb);
}

static void tenants_of_threads(void) {
    hlsnap_sandbox_desc d;
    hlsnap_pool_desc desc = HLSNAP_ZERO;
    static worker w[THREADS + 1];
    uint64_t kept = 0, images = 0, changed = 0;
    hlsnap_pool_stats stats;
    uint32_t i;
    fake_reset();
    d = host_desc();
    d.maps = &map;
    d.num_maps = 1;
    desc.sandbox = &d;
    desc.max_sandboxes = THREADS - 1; /* so that somebody waits */
    desc.wait_ns = 60000000000ull;
    desc.warm = 1;
    for (i = 0; i <= THREADS; i++) w[i].random = (getenv("SEED") ? strtoull(getenv("SEED"), NULL, 10) : 1) * 0x9e3779b97f4a7c15ull + i + 1;
    board_fill(&w[THREADS], &d);
    CHECK_EQ(hlsnap_pool_create(&desc, &pool, &err), HLSNAP_OK);
    for (i = 0; i < THREADS; i++) CHECK_EQ(pthread_create(&w[i].thread, NULL, work, &w[i]), 0);
    for (i = 0; i < THREADS; i++) pthread_join(w[i].thread, NULL);
    for (i = 0; i <= THREADS; i++) CHECK_EQ(w[i].bad, 0);
    for (i = 0; i < THREADS; i++) kept += w[i].kept, images += w[i].images, changed += w[i].changed;
    CHECK(kept && images && changed);
    hlsnap_pool_get_stats(pool, &stats);
    printf("# %llu snapshots, %llu images, %llu acquired: %llu ready, %llu moved, %llu made\n", (unsigned long long)kept, (unsigned long long)images,
           (unsigned long long)stats.acquired, (unsigned long long)stats.ready, (unsigned long long)stats.moved, (unsigned long long)stats.made);
    CHECK(stats.ready && stats.moved && stats.made && stats.refused == 0);
    hlsnap_pool_destroy(pool);
    for (i = 0; i < SHOWN; i++) hlsnap_snapshot_release(board.s[i]);
    CHECK_EQ(inject.live, 0);
    CHECK_EQ(inject.maps, 0);
    CHECK_EQ(hv.shells, 0);
    CHECK_EQ(hv.bad, 0);
    CHECK_EQ(count_lines("/proc/self/maps", "memfd:hlsnap"), 0);
}

static const test_row tests[] = {TEST(tenants_of_threads)};
int main(int argc, char **argv) {
    const int fd = mkstemp(path);
    int r;
    if (fd < 0 || ftruncate(fd, MAPPED * 4096) != 0) return 1;
    close(fd);
    map.name = "data";
    map.mode = HLSNAP_MAP_PRIVATE;
    map.path = path;
    r = (test_words = err.msg, TEST_MAIN(tests, argc, argv));
    unlink(path);
    return r;
}

/* test_oom.c - the k-th allocation, then the k-th system call of every public function fails, for rising k, until a run
   finds nothing left to fail. After each failure the objects are usable or can be destroyed, and nothing is left behind:
   no block, no descriptor, no mapping.
   cc:  cc -std=gnu11 -I.. test_oom.c -o test_oom
   run: ./test_oom [name]      prints the failures injected; QUICK=1 tries every seventh only */
#define HLSNAP_IMPLEMENTATION
#include "guest_fake.h"
#include "test.h"

/* One scenario: set up and check outside of the injection, `run` inside it. */
typedef struct world {
    hlsnap_sandbox *sb;        /* READY when `run` starts */
    hlsnap_snapshot *own, *sibling, *far, *foreign, *pre; /* of sb, of sb changed little, changed much, of another guest */
    hlsnap_sandbox *made;      /* by run; NULL on failure */
    hlsnap_snapshot *taken;    /* by run; NULL on failure */
    hlsnap_snapshot *wanted;   /* what sb was to be restored to, NULL = none */
} world;

typedef struct scenario { const char *name; hlsnap_result (*run)(world *w); int min_allocs, min_calls; } scenario;

static hlsnap_interrupt *stale;

static hlsnap_result dirty(hlsnap_sandbox *sb, uint32_t first, uint32_t pages, uint32_t seed) {
    return hlsnap_sandbox_call(sb, "dirty", HLSNAP_ARGS(hlsnap_u64(region_gva(sb, HLSNAP__HEAP) + first * 4096ull),
                               hlsnap_u32(pages), hlsnap_u32(seed)), NULL, &err);
}

/* ---- the scenarios: every public function that allocates ---- */

static hlsnap_result s_from_guest(world *w) {
    const hlsnap_guest_desc g = fake_guest(GUEST_ALL, 16);
    return hlsnap_snapshot_from_guest(&g, &w->taken, &err);
}
static hlsnap_result s_from_path(world *w) {
    hlsnap_guest_desc g = HLSNAP_ZERO;
    g.path = "/proc/self/exe"; /* refused, since it is linked dynamically, but only after it was read */
    return hlsnap_snapshot_from_guest(&g, &w->taken, &err);
}
static hlsnap_result s_create(world *w) {
    const hlsnap_guest_desc g = fake_guest(GUEST_ALL, 16);
    const hlsnap_sandbox_desc d = host_desc();
    return hlsnap_sandbox_create(&g, &d, &w->made, &err);
}
static hlsnap_result s_create_from(world *w) {
    const hlsnap_sandbox_desc d = host_desc();
    return hlsnap_sandbox_create_from(w->far, &d, &w->made, &err);
}
static hlsnap_result s_create_learned(world *w) { /* one that learns, one that has what it learned */
    const hlsnap_sandbox_desc d = host_desc();
    const long hits = inject.hits;
    hlsnap_sandbox *sb = NULL;
    hlsnap_result r;
    w->own->guest->learn = true; /* of the sibling and of far, too */
    r = hlsnap_sandbox_create_from(w->sibling, &d, &sb, &err);
    if (!r) r = dirty(sb, 100, 20, 5);
    if (!r) r = hlsnap_sandbox_restore(sb, w->sibling, &err);
    if (!r) r = hlsnap_sandbox_create_from(w->sibling, &d, &w->made, &err);
    if (w->made) CHECK(inject.hits != hits || (w->made->memory.prefaulted >= 20 && w->made->memory.num_hot >= 20));
    hlsnap_sandbox_destroy(sb);
    return r;
}
static hlsnap_result s_create_pre(world *w) {
    const hlsnap_sandbox_desc d = host_desc();
    return hlsnap_sandbox_create_from(w->pre, &d, &w->made, &err);
}
static hlsnap_result s_call(world *w) {
    hlsnap_value out;
    const hlsnap_result r = hlsnap_sandbox_call(w->sb, "big", HLSNAP_ARGS(hlsnap_u32(30000)), &out, &err);
    CHECK(r || (out.size == 30000 && out.bytes[7] == 7 * 31));
    return r;
}
static hlsnap_result s_call_host(world *w) {
    static uint8_t data[15000];
    hlsnap_value out;
    const hlsnap_result r = hlsnap_sandbox_call(w->sb, "r_bytes", HLSNAP_ARGS(hlsnap_bytes(data, sizeof(data))), &out, &err);
    CHECK(r || out.size == sizeof(data));
    return r;
}
static hlsnap_result s_invoke(world *w) {
    static hlsnap_invocation calls[1500];
    static hlsnap_value args[1500], outs[1500];
    size_t i, done = 0;
    hlsnap_result r;
    hlsnap_export twice, str;
    hlsnap_sandbox_find(w->sb, "twice", NULL, &twice, NULL);
    hlsnap_sandbox_find(w->sb, "e_str", NULL, &str, NULL);
    for (i = 0; i < HLSNAP_COUNT(calls); i++) {
        args[i] = i == 700 ? hlsnap_str("seven hundred") : hlsnap_i32((int32_t)i);
        calls[i].target = i == 700 ? str : twice;
        calls[i].args = &args[i];
        calls[i].num_args = 1;
    }
    r = hlsnap_sandbox_invoke(w->sb, calls, HLSNAP_COUNT(calls), outs, &done, &err);
    CHECK(r ? done < HLSNAP_COUNT(calls) : done == HLSNAP_COUNT(calls));
    for (i = 0; i < done; i++) CHECK(i == 700 ? outs[i].type == HLSNAP_STR : outs[i].as.i32 == 2 * (int32_t)i);
    return r;
}
static uint64_t word_at(hlsnap_sandbox *sb, uint32_t page) {
    uint64_t v = UINT64_MAX;
    CHECK_EQ(hlsnap_sandbox_read(sb, region_gva(sb, HLSNAP__HEAP) + page * 4096ull, &v, 8, NULL), HLSNAP_OK);
    return v;
}

static hlsnap_result s_snapshot(world *w) { return hlsnap_sandbox_snapshot(w->sb, &w->taken, &err); }
static hlsnap_result s_snapshot_little(world *w) {
    const hlsnap_result r = dirty(w->sb, 3, 50, 8);
    return r ? r : hlsnap_sandbox_snapshot(w->sb, &w->taken, &err);
}
static hlsnap_result s_snapshot_much(world *w) {
    const hlsnap_result r = dirty(w->sb, 100, 600, 9);
    return r ? r : hlsnap_sandbox_snapshot(w->sb, &w->taken, &err);
}
static hlsnap_result s_snapshot_rests(world *w) { /* the third one gives back what the last two found unchanged */
    hlsnap_result r = dirty(w->sb, 100, 600, 9);
    const long hits = inject.hits;
    int i;
    for (i = 0; i < 3 && !r; i++) {
        hlsnap_snapshot_release(w->taken);
        r = hlsnap_sandbox_snapshot(w->sb, &w->taken, &err);
    }
    if (r) return r;
    CHECK(w->sb->memory.base == w->taken && (inject.hits != hits || w->sb->memory.num_hot < 100));
    CHECK_EQ(word_at(w->sb, 100), 9);
    CHECK_EQ(word_at(w->sb, 699), 9 + 599 * 0x100000001ull);
    return r;
}
static hlsnap_result restore(world *w, hlsnap_snapshot *to) { return hlsnap_sandbox_restore(w->sb, w->wanted = to, &err); }
static hlsnap_result s_restore(world *w) {
    const hlsnap_result r = dirty(w->sb, 0, 100, 1);
    return r ? r : restore(w, w->own);
}
static hlsnap_result s_restore_sibling(world *w) { return restore(w, w->sibling); }
static hlsnap_result s_restore_rests(world *w) { /* one of them lays the pages of the sibling below */
    hlsnap_result r = HLSNAP_OK;
    const long hits = inject.hits;
    int i;
    for (i = 0; i < 16 && !r; i++) r = restore(w, w->sibling); /* the ninth is the first to find them unchanged */
    CHECK(r || inject.hits != hits || (w->sb->memory.base == w->sibling && w->sb->memory.num_hot < 30));
    return r;
}
static hlsnap_result s_restore_settles(world *w) { /* one of them maps what was copied */
    const long alloc_fail = inject.alloc_fail, sys_fail = inject.sys_fail;
    hlsnap_result r = HLSNAP_OK;
    uint32_t i;
    inject.alloc_fail = inject.sys_fail = -1;
    for (i = 0; i < 20; i++) CHECK_EQ(dirty(w->sb, 200 + 3 * i, 1, 40 + i), HLSNAP_OK);
    CHECK_EQ(hlsnap_sandbox_snapshot(w->sb, &w->taken, &err), HLSNAP_OK);
    for (i = 1; i < HLSNAP__SETTLE_RESETS; i++) CHECK_EQ(hlsnap_sandbox_restore(w->sb, w->taken, &err), HLSNAP_OK);
    CHECK_EQ(w->sb->memory.settled, false);
    inject_arm(alloc_fail, sys_fail);
    for (i = 0; i < 2 * HLSNAP__SETTLE_RESETS && !r; i++) r = hlsnap_sandbox_restore(w->sb, w->taken, &err);
    CHECK(r || inject.hits || (w->sb->memory.settled && w->sb->memory.num_hot < 15));
    for (i = 0; i < 20 && !r; i++) CHECK_EQ(word_at(w->sb, 200 + 3 * i), 40 + i);
    if (r) hlsnap_snapshot_release(w->taken);
    if (r) w->taken = NULL;
    return r;
}
static hlsnap_result s_restore_far(world *w) { return restore(w, w->far); }
static hlsnap_result s_restore_foreign(world *w) { return restore(w, w->foreign); }
static hlsnap_result s_restore_pre(world *w) { return restore(w, w->pre); }
static hlsnap_result s_bind(world *w) {
    return hlsnap_sandbox_bind(w->sb, host_functions, HLSNAP_COUNT(host_functions), &err);
}
static hlsnap_result s_write(world *w) {
    static uint8_t data[300 * 4096];
    memset(data, 5, sizeof(data));
    return hlsnap_sandbox_write(w->sb, region_gva(w->sb, HLSNAP__HEAP) + 100, data, sizeof(data) - 200, &err);
}
/* A pool from its beginning to its end: made, moved, ready, and what is left when one of them fails. */
static hlsnap_result s_pool(world *w) {
    const hlsnap_sandbox_desc d = host_desc();
    hlsnap_snapshot *at[] = {w->own, w->sibling, w->sibling, w->foreign, w->far};
    hlsnap_pool_desc desc = HLSNAP_ZERO;
    hlsnap_pool_stats st;
    hlsnap_pool *pool;
    hlsnap_sandbox *sb;
    hlsnap_result r;
    size_t i;
    desc.sandbox = &d;
    desc.max_sandboxes = 1;
    r = hlsnap_pool_create(&desc, &pool, &err);
    for (i = 0; i < HLSNAP_COUNT(at) && !r; i++) {
        r = hlsnap_pool_acquire(pool, at[i], &sb, &err);
        if (r) break;
        CHECK_EQ(word_at(sb, 0), at[i] == w->own ? 0 : at[i] == w->sibling ? 2 : at[i] == w->foreign ? 4 : 3);
        r = dirty(sb, 0, 60, 9);
        stale = i == 2 ? hlsnap_sandbox_get_interrupt(sb) : NULL;
        hlsnap_pool_release(pool, sb);
        hlsnap_interrupt_release(stale);
        hlsnap_pool_get_stats(pool, &st);
        CHECK(st.sandboxes == st.idle && st.sandboxes <= 1);
    }
    hlsnap_pool_destroy(pool);
    return r;
}
static hlsnap_result s_find(world *w) {
    hlsnap_export e;
    hlsnap_interrupt_release(hlsnap_sandbox_get_interrupt(w->sb));
    return hlsnap_sandbox_find(w->sb, "nop", "void()", &e, &err);
}

/* Maps of all kinds. */
static hlsnap_map a_map(uint32_t i) {
    static uint8_t data[8192] __attribute__((aligned(4096)));
    hlsnap_map m = HLSNAP_ZERO;
    m.name = i == 0 ? "read" : i == 1 ? "private" : i == 2 ? "captured" : i == 3 ? "memory" : "shared";
    m.mode = i == 0 ? HLSNAP_MAP_READ : i == 4 ? HLSNAP_MAP_SHARED : HLSNAP_MAP_PRIVATE;
    m.capture = i == 2;
    m.path = i < 3 ? "/proc/self/exe" : NULL;
    m.data = i < 3 ? NULL : data;
    m.size = i < 3 ? 5 * 4096 : sizeof(data);
    return m;
}
static hlsnap_result map_all(hlsnap_sandbox *sb) {
    hlsnap_result r = HLSNAP_OK;
    uint32_t i;
    for (i = 0; i < 5 && !r; i++) {
        const hlsnap_map m = a_map(i);
        r = hlsnap_sandbox_map(sb, &m, &err);
        CHECK(!r || call0(sb, "nop") == HLSNAP_OK);
    }
    return r;
}
static hlsnap_result write_all(hlsnap_sandbox *sb) { /* to the private ones, as far as they are there */
    hlsnap_result r = HLSNAP_OK;
    uint32_t i;
    for (i = 0; i < sb->memory.num_maps && !r; i++)
        if (sb->memory.maps[i].map.mode == HLSNAP_MAP_PRIVATE)
            r = hlsnap_sandbox_call(sb, "poke", HLSNAP_ARGS(hlsnap_u64(sb->memory.maps[i].map.gva + 4096), hlsnap_bytes("changed", 8)), NULL, &err);
    return r;
}
static hlsnap_result s_map(world *w) { return map_all(w->sb); }
static hlsnap_result s_map_restore(world *w) {
    const long alloc_fail = inject.alloc_fail, sys_fail = inject.sys_fail;
    hlsnap_result r;
    inject.alloc_fail = inject.sys_fail = -1;
    CHECK_EQ(map_all(w->sb), HLSNAP_OK);
    inject_arm(alloc_fail, sys_fail);
    r = write_all(w->sb);
    if (!r) r = restore(w, w->far);
    if (!r) r = write_all(w->sb);
    return r ? r : restore(w, w->own);
}
static hlsnap_result s_map_take(world *w) { /* a snapshot with maps, and one of their changes */
    const long alloc_fail = inject.alloc_fail, sys_fail = inject.sys_fail;
    hlsnap_result r;
    inject.alloc_fail = inject.sys_fail = -1;
    CHECK_EQ(map_all(w->sb), HLSNAP_OK);
    inject_arm(alloc_fail, sys_fail);
    r = hlsnap_sandbox_snapshot(w->sb, &w->taken, &err);
    if (!r) r = write_all(w->sb);
    if (r) return hlsnap_snapshot_release(w->taken), w->taken = NULL, r;
    hlsnap_snapshot_release(w->taken);
    return hlsnap_sandbox_snapshot(w->sb, &w->taken, &err);
}
static hlsnap_result s_map_start(world *w) { /* from such a one, in a sandbox of its own */
    const long alloc_fail = inject.alloc_fail, sys_fail = inject.sys_fail;
    hlsnap_sandbox_desc d = host_desc();
    hlsnap_map maps[5];
    hlsnap_snapshot *s;
    hlsnap_result r;
    uint32_t i;
    inject.alloc_fail = inject.sys_fail = -1;
    CHECK_EQ(map_all(w->sb), HLSNAP_OK);
    CHECK_EQ(write_all(w->sb), HLSNAP_OK);
    CHECK_EQ(hlsnap_sandbox_snapshot(w->sb, &s, &err), HLSNAP_OK);
    for (i = 0; i < 5; i++) maps[i] = a_map(i);
    d.maps = maps;
    d.num_maps = 5;
    inject_arm(alloc_fail, sys_fail);
    r = hlsnap_sandbox_create_from(s, &d, &w->made, &err);
    hlsnap_snapshot_release(s);
    return r;
}
static hlsnap_result s_map_pool(world *w) {
    hlsnap_sandbox_desc d = host_desc();
    hlsnap_pool_desc desc = HLSNAP_ZERO;
    const hlsnap_map map = a_map(1);
    hlsnap_pool *pool;
    hlsnap_sandbox *sb;
    hlsnap_result r;
    d.maps = &map;
    d.num_maps = 1;
    desc.sandbox = &d;
    r = hlsnap_pool_create(&desc, &pool, &err);
    if (!r) r = hlsnap_pool_acquire(pool, w->sibling, &sb, &err);
    if (!r) hlsnap_pool_release(pool, sb);
    hlsnap_pool_destroy(pool);
    return r;
}

/* From heap page to heap page. Where memory is missing, the guest is refused, and would copy; nothing has changed then. */
static hlsnap_result image(hlsnap_sandbox *sb, uint32_t from, uint32_t to, uint32_t pages, uint32_t options) {
    const uint64_t heap = region_gva(sb, HLSNAP__HEAP);
    hlsnap_value out;
    const hlsnap_result r = hlsnap_sandbox_call(sb, "image", HLSNAP_ARGS(hlsnap_u64(heap + from * 4096ull), hlsnap_u64(heap + to * 4096ull), hlsnap_u64(pages * 4096ull), hlsnap_u32(options)), &out, &err);
    if (r || !out.str[0]) return r;
    CHECK_EQ(atoi(out.str), HLSNAP_ERR_LIMIT);
    CHECK(inject.hits && (inject.alloc_fail >= 0 || inject.sys_errno != EINVAL));
    CHECK_EQ(hlsnap_sandbox_get_state(sb), HLSNAP_READY);
    return err.code = HLSNAP_ERR_MEMORY;
}
static hlsnap_result images(world *w) {
    hlsnap_result r = dirty(w->sb, 1800, 100, 6);
    if (!r) r = image(w->sb, 1800, 1000, 100, HLSNAP_ABI_IMAGE_ONCE);
    if (!r) r = image(w->sb, 1000, 1200, 90, 0);
    if (!r) r = image(w->sb, 1810, 1400, 80, 0); /* laid at both */
    if (!r) r = dirty(w->sb, 1203, 2, 5);
    if (!r) r = image(w->sb, 1180, 1600, 60, 0); /* of pieces */
    if (r) return r;
    CHECK(word_at(w->sb, 1623) == 5 && word_at(w->sb, 1625) == 6 + 5 * 0x100000001ull);
    return r;
}
static hlsnap_result s_image(world *w) { return images(w); }
static hlsnap_result s_image_restore(world *w) {
    hlsnap_result r = images(w);
    if (!r) r = restore(w, w->sibling);
    if (!r) r = images(w);
    return r ? r : restore(w, w->own);
}
static hlsnap_result s_image_take(world *w) {
    const hlsnap_result r = images(w);
    return r ? r : hlsnap_sandbox_snapshot(w->sb, &w->taken, &err);
}

/* X(name, allocations, system calls): how many points of failure there are at least */
#define SCENARIOS(X) \
    X(from_guest, 8, 1) X(from_path, 3, 1) X(create, 20, 8) X(create_from, 7, 8) X(create_learned, 16, 20) X(create_pre, 12, 8) X(call, 1, 0) \
    X(call_host, 2, 0) X(invoke, 2, 0) X(snapshot, 4, 1) X(snapshot_little, 6, 1) X(snapshot_much, 6, 4) X(snapshot_rests, 12, 8) \
    X(restore, 1, 2) X(restore_sibling, 1, 2) X(restore_rests, 1, 8) X(restore_settles, 2, 100) X(restore_far, 1, 4) X(restore_foreign, 3, 6) X(restore_pre, 6, 2) \
    X(bind, 2, 0) X(pool, 15, 20) X(write, 1, 0) X(find, 0, 0) \
    X(map, 8, 30) X(map_restore, 2, 12) X(map_take, 12, 2) X(map_start, 14, 40) X(map_pool, 6, 10) \
    X(image, 20, 60) X(image_restore, 40, 150) X(image_take, 25, 60)

/* ---- the loop ---- */

static world world_create(void) {
    const hlsnap_guest_desc g = fake_guest(GUEST_ALL, 2048);
    world w = {NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL};
    hlsnap_sandbox *other = start(GUEST_OTHER, 100);
    w.sb = start(GUEST_ALL, 2048);
    CHECK_EQ(hlsnap_snapshot_from_guest(&g, &w.pre, &err), HLSNAP_OK);
    CHECK_EQ(dirty(other, 0, 70, 4), HLSNAP_OK);
    CHECK_EQ(hlsnap_sandbox_snapshot(other, &w.foreign, &err), HLSNAP_OK);
    CHECK_EQ(hlsnap_sandbox_snapshot(w.sb, &w.own, &err), HLSNAP_OK);
    CHECK_EQ(dirty(w.sb, 0, 70, 2), HLSNAP_OK);
    CHECK_EQ(hlsnap_sandbox_snapshot(w.sb, &w.sibling, &err), HLSNAP_OK);
    CHECK_EQ(dirty(w.sb, 0, 1500, 3), HLSNAP_OK);
    CHECK_EQ(hlsnap_sandbox_snapshot(w.sb, &w.far, &err), HLSNAP_OK);
    hlsnap_sandbox_destroy(w.sb); /* a fresh one: its buffers and its hot set are still small */
    hlsnap_sandbox_destroy(other);
    { const hlsnap_sandbox_desc d = host_desc();
      CHECK_EQ(hlsnap_sandbox_create_from(w.own, &d, &w.sb, &err), HLSNAP_OK); }
    return w;
}

/* What the sandbox must hold at one of the world's snapshots: the first words of the heap's pages. */
static void world_check(world *w, hlsnap_snapshot *at) {
    const uint32_t seed = at == w->sibling ? 2 : at == w->far ? 3 : at == w->foreign ? 4 : 0;
    const uint32_t pages = !seed ? 0 : at == w->far ? 1500 : 70, last = at == w->foreign ? 99 : 2047;
    CHECK_EQ(word_at(w->sb, 0), seed);
    CHECK_EQ(word_at(w->sb, 69), pages ? seed + 69 * 0x100000001ull : 0);
    CHECK_EQ(word_at(w->sb, 70), pages > 70 ? seed + 70 * 0x100000001ull : 0);
    CHECK_EQ(word_at(w->sb, last), 0);
}

/* Usable or destroyable: a call where READY, a restore in any case, everything that was there, and destroy. */
static void world_use(world *w, hlsnap_result r) {
    if (r) CHECK(!w->made && !w->taken);
    if (w->wanted) {
        CHECK_EQ(hlsnap_sandbox_get_state(w->sb) == HLSNAP_READY || r, true);
        CHECK_EQ(hlsnap_sandbox_restore(w->sb, w->wanted, &err), HLSNAP_OK);
        world_check(w, w->wanted);
    }
    if (hlsnap_sandbox_get_state(w->sb) == HLSNAP_READY) CHECK_EQ(call0(w->sb, "nop"), HLSNAP_OK);
    CHECK_EQ(hlsnap_sandbox_restore(w->sb, w->own, &err), HLSNAP_OK);
    world_check(w, w->own);
    CHECK_EQ(hlsnap__all_zero(w->sb->mailbox, (size_t)w->sb->mailbox_size), true);
    CHECK_EQ(call0(w->sb, "nop"), HLSNAP_OK);
    if (w->made) CHECK_EQ(call0(w->made, "nop"), HLSNAP_OK);
    if (w->taken && w->taken->guest->initialized) CHECK_EQ(hlsnap_sandbox_restore(w->sb, w->taken, &err), HLSNAP_OK);
}

static void world_destroy(world *w) {
    hlsnap_snapshot *s[] = {w->own, w->sibling, w->far, w->foreign, w->pre, w->taken};
    size_t i;
    for (i = 0; i < HLSNAP_COUNT(s); i++) hlsnap_snapshot_release(s[i]);
    hlsnap_sandbox_destroy(w->sb);
    hlsnap_sandbox_destroy(w->made);
}

/* What fails: allocations, and system calls with each of these. */
static const int errnos[] = {0, ENOMEM, EINVAL, EINTR};

/* One run with allocation or system call k failing; false when there was none left to fail. */
static bool attempt(const scenario *s, size_t kind, long k) {
    const balance was = balance_now();
    balance is;
    world w = world_create();
    hlsnap_result r;
    bool hit;
    memset(&err, 0, sizeof(err));
    inject.sys_errno = errnos[kind];
    inject_arm(kind ? -1 : k, kind ? k : -1);
    r = s->run(&w);
    hit = inject_disarm();
    if (s->run != s_from_path) CHECK(hit ? r == HLSNAP_OK || r == HLSNAP_ERR_MEMORY || r == HLSNAP_ERR_OS : r == HLSNAP_OK);
    if (r) CHECK_EQ(err.code, r);
    CHECK(w.sb->memory.mem || !w.sb->memory.valid);
    world_use(&w, r);
    world_destroy(&w);
    is = balance_now();
    CHECK_EQ(is.live, was.live);
    CHECK_EQ(is.maps, was.maps);
    CHECK_EQ(is.shells, was.shells);
    CHECK_EQ(is.fds, was.fds);
    CHECK_EQ(is.memfds, was.memfds);
    CHECK_EQ(hv.bad, 0);
    if (test_bad) printf("# %s: %s %ld, %s: %s\n", s->name, kind ? "system call" : "allocation", k, hlsnap_result_name(r), err.msg);
    return hit;
}

static long total;
static void loop(const scenario *s) {
    const long step = getenv("QUICK") ? 7 : 1;
    long points[HLSNAP_COUNT(errnos)];
    size_t kind;
    int lines;
    if (getenv("QEMU_USER") && (s->run == s_map_restore || s->run == s_map_take || s->run == s_map_start)) SKIP("qemu-user has no process_vm_readv");
    fake_reset();
    attempt(s, 0, -1); /* what libc maps once, it has mapped now */
    lines = count_lines("/proc/self/maps", "");
    for (kind = 0; kind < HLSNAP_COUNT(errnos); kind++) {
        long k = 0;
        while (!test_bad && k < 5000 && attempt(s, kind, k)) k += step;
        points[kind] = k / step;
        total += points[kind];
        CHECK(k < 5000);
    }
    CHECK(SANITIZED || count_lines("/proc/self/maps", "") <= lines + 8); /* libc's own come and go, ours would be hundreds */
    printf("# %s: %ld allocations and %ld system calls failed\n", s->name, points[0], points[1]);
    CHECK(points[0] * step >= s->min_allocs && points[1] * step >= s->min_calls);
}

#define RUN(name, min_allocs, min_calls) \
    static void run_##name(void) { \
        static const scenario s = {#name, s_##name, min_allocs, min_calls}; \
        loop(&s); \
    }
SCENARIOS(RUN)

/* The real thing: a limit on address space makes mmap fail. */
static void address_space(void) {
    const hlsnap_guest_desc big = fake_guest(GUEST_FEW, 1u << 20); /* 4 GiB */
    const hlsnap_sandbox_desc d = host_desc();
    const struct rlimit limit = {1ull << 30, RLIM_INFINITY}, none = {RLIM_INFINITY, RLIM_INFINITY};
    hlsnap_sandbox *sb, *other;
    hlsnap_snapshot *s, *large;
    if (SANITIZED) SKIP("a sanitizer needs the address space");
    if (getenv("QEMU_USER")) SKIP("qemu-user ignores RLIMIT_AS");
    fake_reset();
    CHECK_EQ(hlsnap_sandbox_create(&big, &d, &other, &err), HLSNAP_OK);
    CHECK_EQ(hlsnap_sandbox_snapshot(other, &large, &err), HLSNAP_OK);
    hlsnap_sandbox_destroy(other);
    sb = start(GUEST_FEW, 16);
    CHECK_EQ(hlsnap_sandbox_snapshot(sb, &s, &err), HLSNAP_OK);
    CHECK_EQ(setrlimit(RLIMIT_AS, &limit), 0);
    CHECK_EQ(hlsnap_sandbox_create(&big, &d, &other, &err), HLSNAP_ERR_MEMORY);
    CHECK_EQ(hlsnap_sandbox_restore(sb, large, &err), HLSNAP_ERR_MEMORY);
    CHECK_EQ(hlsnap_sandbox_get_state(sb), HLSNAP_POISONED);
    CHECK_EQ(hlsnap_sandbox_restore(sb, s, &err), HLSNAP_OK);
    CHECK_EQ(call0(sb, "nop"), HLSNAP_OK);
    CHECK_EQ(setrlimit(RLIMIT_AS, &none), 0);
    CHECK_EQ(hlsnap_sandbox_restore(sb, large, &err), HLSNAP_OK);
    CHECK_EQ(call0(sb, "nop"), HLSNAP_OK);
    hlsnap_sandbox_destroy(sb);
    hlsnap_snapshot_release(s);
    hlsnap_snapshot_release(large);
    CHECK_EQ(inject.live, 0);
}

#define MIN_POINTS 380         /* of a full run; fewer mean that the injection no longer reaches the library */
#define ROW(name, min_allocs, min_calls) {#name, run_##name},
static const test_row tests[] = {SCENARIOS(ROW) TEST(address_space)};
int main(int argc, char **argv) {
    const int bad = (test_words = err.msg, TEST_MAIN(tests, argc, argv));
    printf("# %ld failures injected\n", total);
    return bad ? bad : argc < 2 && !getenv("QUICK") && total < MIN_POINTS;
}

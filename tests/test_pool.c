/* test_pool.c - pools, on the fake hypervisor: who is given which sandbox, bounds, waiting, what a tenant leaves, the ways to end one.
   Threads that hurry are in test_kvm.c (pool_of_threads), failing allocations and system calls in test_oom.c.
   cc:  cc -std=gnu11 -I.. test_pool.c -o test_pool
   run: ./test_pool [name] */
#define HLSNAP_IMPLEMENTATION
#include "guest_fake.h"
#include "test.h"
#include <dirent.h>
#include <sys/wait.h>

#define MS 1000000u

/* Two snapshots of one guest, one of another, and a pool. */
typedef struct fixture {
    hlsnap_pool *pool;
    hlsnap_snapshot *one, *two, *other;
    hlsnap_pool_desc desc;
    hlsnap_sandbox_desc sandbox;
} fixture;

static hlsnap_result dirty(hlsnap_sandbox *sb, uint32_t first, uint32_t pages, uint32_t seed) {
    return hlsnap_sandbox_call(sb, "dirty", HLSNAP_ARGS(hlsnap_u64(region_gva(sb, HLSNAP__HEAP) + first * 4096ull),
                               hlsnap_u32(pages), hlsnap_u32(seed)), NULL, &err);
}
static uint64_t word(hlsnap_sandbox *sb, uint32_t page) {
    uint64_t v = UINT64_MAX;
    CHECK_EQ(hlsnap_sandbox_read(sb, region_gva(sb, HLSNAP__HEAP) + page * 4096ull, &v, 8, &err), HLSNAP_OK);
    return v;
}

static void begin(fixture *f) {
    hlsnap_sandbox *sb, *of;
    memset(f, 0, sizeof(*f));
    fake_reset();
    f->sandbox = host_desc();
    f->desc.sandbox = &f->sandbox;
    sb = start(GUEST_ALL, 512);
    CHECK_EQ(dirty(sb, 0, 1, 11), HLSNAP_OK);
    CHECK_EQ(hlsnap_sandbox_snapshot(sb, &f->one, &err), HLSNAP_OK);
    CHECK_EQ(dirty(sb, 0, 1, 22), HLSNAP_OK);
    CHECK_EQ(hlsnap_sandbox_snapshot(sb, &f->two, &err), HLSNAP_OK);
    of = start(GUEST_OTHER, 100);
    CHECK_EQ(dirty(of, 0, 1, 33), HLSNAP_OK);
    CHECK_EQ(hlsnap_sandbox_snapshot(of, &f->other, &err), HLSNAP_OK);
    hlsnap_sandbox_destroy(sb);
    hlsnap_sandbox_destroy(of);
}
static void make(fixture *f) { CHECK_EQ(hlsnap_pool_create(&f->desc, &f->pool, &err), HLSNAP_OK); }
static void end(fixture *f) {
    hlsnap_pool_destroy(f->pool);
    hlsnap_snapshot_release(f->one);
    hlsnap_snapshot_release(f->two);
    hlsnap_snapshot_release(f->other);
    CHECK_EQ(inject.live, 0);
    CHECK_EQ(hv.shells, 0);
}
static hlsnap_pool_stats stats_of(const fixture *f) {
    hlsnap_pool_stats s;
    hlsnap_pool_get_stats(f->pool, &s);
    return s;
}
/* READY, at the snapshot, and nobody's before. */
static hlsnap_sandbox *acquire(fixture *f, hlsnap_snapshot *s) {
    hlsnap_sandbox *sb = NULL;
    hlsnap_stats stats;
    if (!CHECK_EQ(hlsnap_pool_acquire(f->pool, s, &sb, &err), HLSNAP_OK)) return printf("# %s\n", err.msg), (hlsnap_sandbox *)NULL;
    CHECK_EQ(hlsnap_sandbox_get_state(sb), HLSNAP_READY);
    CHECK_EQ(word(sb, 0), s == f->one ? 11 : s == f->two ? 22 : 33);
    CHECK_EQ(word(sb, 1), 0);
    CHECK(sb->memory.target == s && hlsnap__all_zero(sb->mailbox, (size_t)sb->mailbox_size));
    hlsnap_sandbox_get_stats(sb, &stats);
    CHECK(stats.calls == 0 && stats.restores <= 1 && stats.ended[HLSNAP_OK] == 0);
    return sb;
}
/* Here and now, however long it took last time. */
static void release(fixture *f, hlsnap_sandbox *sb) {
    sb->pooled.cost_ns = 0;
    hlsnap_pool_release(f->pool, sb);
}
/* Until it is so; false after ten seconds. */
static bool within(bool (*is)(const fixture *f), const fixture *f) {
    int i;
    for (i = 0; i < 10000 && !is(f); i++) usleep(1000);
    return i < 10000;
}

static void arguments(void) {
    fixture f;
    hlsnap_sandbox *sb = (hlsnap_sandbox *)&f;
    hlsnap_pool *p;
    hlsnap_pool_stats s;
    hlsnap_pool_desc d;
    begin(&f);
    CHECK_EQ(hlsnap_pool_create(NULL, &f.pool, &err), HLSNAP_ERR_ARG);
    CHECK_EQ(hlsnap_pool_create(&f.desc, NULL, &err), HLSNAP_ERR_ARG);
    d = f.desc, d._start_canary = 1;
    CHECK_EQ(hlsnap_pool_create(&d, &f.pool, &err), HLSNAP_ERR_ARG);
    d = f.desc, d._end_canary = 1;
    CHECK_EQ(hlsnap_pool_create(&d, &f.pool, &err), HLSNAP_ERR_ARG);
    d = f.desc, d.sandbox = NULL;
    CHECK_EQ(hlsnap_pool_create(&d, &f.pool, &err), HLSNAP_ERR_ARG);
    d = f.desc, d.warm = 65;
    CHECK_EQ(hlsnap_pool_create(&d, &f.pool, &err), HLSNAP_ERR_ARG);
    CHECK_STR(err.msg, "pool desc: warm=65, max_sandboxes=0");
    f.sandbox.hypervisor = NULL;
    CHECK_EQ(hlsnap_pool_create(&f.desc, &f.pool, &err), HLSNAP_ERR_ARG);
    f.sandbox = host_desc(), f.sandbox.num_functions = 2000;
    CHECK_EQ(hlsnap_pool_create(&f.desc, &f.pool, &err), HLSNAP_ERR_LIMIT);
    CHECK(!f.pool);
    f.sandbox = host_desc();
    make(&f);
    f.sandbox.pool = f.pool;
    CHECK_EQ(hlsnap_pool_create(&f.desc, &p, &err), HLSNAP_ERR_ARG);
    CHECK(!p);
    CHECK_EQ(hlsnap_pool_acquire(NULL, f.one, &sb, &err), HLSNAP_ERR_ARG);
    CHECK(!sb);
    CHECK_EQ(hlsnap_pool_acquire(f.pool, NULL, &sb, &err), HLSNAP_ERR_ARG);
    CHECK_EQ(hlsnap_pool_acquire(f.pool, f.one, NULL, &err), HLSNAP_ERR_ARG);
    CHECK_EQ(hlsnap_pool_prefetch(f.pool, NULL, 1, &err), HLSNAP_ERR_ARG);
    CHECK_EQ(hlsnap_pool_prefetch(NULL, f.one, 1, &err), HLSNAP_ERR_ARG);
    hlsnap_pool_release(NULL, NULL);
    hlsnap_pool_release(f.pool, NULL);
    hlsnap_pool_trim(NULL, f.one);
    hlsnap_pool_destroy(NULL);
    hlsnap_pool_get_stats(f.pool, NULL);
    memset(&s, 1, sizeof(s));
    hlsnap_pool_get_stats(NULL, &s);
    CHECK(s.sandboxes == 0 && s.ended == 0);
    end(&f);
}

/* The desc is copied, texts and all. */
static void desc_is_copied(void) {
    static char name[NUM_IMPORTS + 8][64], signature[NUM_IMPORTS + 8][200];
    hlsnap_function functions[NUM_IMPORTS + 8];
    fixture f;
    hlsnap_sandbox *sb;
    size_t i;
    begin(&f);
    for (i = 0; i < f.sandbox.num_functions && CHECK(i < HLSNAP_COUNT(functions)); i++) {
        functions[i] = host_functions[i];
        functions[i].name = strcpy(name[i], host_functions[i].name);
        functions[i].signature = strcpy(signature[i], host_functions[i].signature);
    }
    f.sandbox.functions = functions;
    make(&f);
    memset(functions, 0, sizeof(functions));
    memset(name, 'x', sizeof(name));
    memset(signature, 'x', sizeof(signature));
    memset(&f.sandbox, 0, sizeof(f.sandbox));
    memset(&f.desc, 0, sizeof(f.desc));
    sb = acquire(&f, f.one);
    CHECK_EQ(call0(sb, "hook"), HLSNAP_OK);
    release(&f, sb);
    end(&f);
}

static void comes_back_clean(void) {
    fixture f;
    hlsnap_sandbox *sb, *again;
    hlsnap_pool_stats s;
    uint32_t i;
    begin(&f);
    make(&f);
    sb = acquire(&f, f.one);
    for (i = 0; i < 20; i++) {
        CHECK_EQ(dirty(sb, 0, 5 + i, 77), HLSNAP_OK);
        if (i % 3 == 1) CHECK_EQ(hlsnap_sandbox_call(sb, "poke", HLSNAP_ARGS(hlsnap_u64(8), hlsnap_bytes("x", 1)), NULL, &err), HLSNAP_ERR_FAULT);
        if (i % 5 == 4) hlsnap_sandbox_retire(sb);
        release(&f, sb);
        s = stats_of(&f);
        CHECK(s.sandboxes == 1 && s.idle == 1 && s.ended == 0);
        CHECK(i == 5 || s.bytes == sb->memory.num_hot * 4096ull);
        again = acquire(&f, f.one);
        CHECK(again == sb);
    }
    s = stats_of(&f);
    CHECK(s.acquired == 21 && s.ready == 20 && s.made == 1 && s.moved == 0 && s.idle == 0);
    release(&f, sb);
    hlsnap_pool_release(f.pool, sb); /* not acquired any more */
    CHECK_EQ(stats_of(&f).idle, 1);
    end(&f);
}

/* What a tenant does with it that is not undone by a restore. */
static int log_lines, out_bytes;
static void count_log(int level, const char *text, size_t size, void *user) { (void)level, (void)text, (void)size, (void)user, log_lines++; }
static void count_out(int fd, const void *bytes, size_t size, void *user) { (void)fd, (void)bytes, (void)user, out_bytes += (int)size; }
static hlsnap_interrupt *stale;
static bool cancelled;
static void cancel_stale(void) { cancelled = hlsnap_interrupt_cancel(stale); }
static void tenants_own(void) {
    fixture f;
    hlsnap_sandbox *sb, *next;
    hlsnap_snapshot *mine;
    begin(&f);
    make(&f);
    sb = acquire(&f, f.one);
    hlsnap_sandbox_set_log(sb, 4, count_log, NULL);
    hlsnap_sandbox_set_output(sb, count_out, NULL);
    stale = hlsnap_sandbox_get_interrupt(sb);
    CHECK_EQ(dirty(sb, 1, 3, 5), HLSNAP_OK);
    CHECK_EQ(hlsnap_sandbox_snapshot(sb, &mine, &err), HLSNAP_OK); /* what it is put back to is not this */
    CHECK_EQ(dirty(sb, 1, 3, 6), HLSNAP_OK);
    release(&f, sb);
    next = acquire(&f, f.one);
    CHECK(next == sb && !next->log && !next->output && next->log_level == -1);
    on_hook = cancel_stale;
    CHECK_EQ(call0(next, "hook"), HLSNAP_OK);
    CHECK_EQ(cancelled, false);
    hlsnap_interrupt_release(stale);
    stale = hlsnap_sandbox_get_interrupt(next); /* its own works */
    CHECK_EQ(call0(next, "hook"), HLSNAP_ERR_CANCELLED);
    CHECK_EQ(cancelled, true);
    hlsnap_interrupt_release(stale);
    release(&f, next);
    sb = acquire(&f, f.one);
    CHECK_EQ(hlsnap_sandbox_restore(sb, mine, &err), HLSNAP_OK); /* elsewhere */
    CHECK_EQ(word(sb, 1), 5);
    release(&f, sb);
    sb = acquire(&f, f.one);
    CHECK_EQ(stats_of(&f).made, 1);
    CHECK_EQ(hlsnap_sandbox_bind(sb, host_functions, HLSNAP_COUNT(host_functions), &err), HLSNAP_OK);
    release(&f, sb); /* its functions are not the pool's any more */
    CHECK(stats_of(&f).sandboxes == 0 && stats_of(&f).ended == 1);
    hlsnap_snapshot_release(mine);
    end(&f);
}

/* The only one, from snapshot to snapshot. */
static void moves(void) {
    fixture f;
    hlsnap_sandbox *sb;
    uint32_t i, retire;
    for (retire = 0; retire < 2; retire++) {
        begin(&f);
        f.desc.max_sandboxes = 1;
        f.desc.retire = retire;
        make(&f);
        sb = acquire(&f, f.one);
        for (i = 0; i < 6; i++) {
            hlsnap_snapshot *to = i % 3 == 0 ? f.two : i % 3 == 1 ? f.other : f.one;
            CHECK_EQ(dirty(sb, 0, 90, 3), HLSNAP_OK);
            release(&f, sb);
            if (retire) CHECK(sb->memory.num_hot <= sb->memory.num_copied + 4); /* nobody can tell which pages it used */
            else CHECK(sb->memory.num_hot >= 90);
            CHECK(acquire(&f, to) == sb);
            CHECK_EQ(stats_of(&f).moved, i + 1);
        }
        release(&f, sb);
        CHECK(acquire(&f, f.one) == sb);
        CHECK_EQ(dirty(sb, 0, 90, 3), HLSNAP_OK);
        sb->pooled.cost_ns = HLSNAP__POOL_SLOW_NS + 1; /* by the thread, or by who comes before it */
        hlsnap_pool_release(f.pool, sb);
        CHECK(acquire(&f, f.one) == sb);
        CHECK((sb->memory.num_hot < 90) == (retire != 0));
        release(&f, sb);
        end(&f);
    }
}

/* Those who come in turns have one each in the end; those who come once take what there is. */
static void turns(void) {
    fixture f;
    uint32_t i;
    hlsnap_pool_stats s;
    begin(&f);
    make(&f);
    for (i = 0; i < 60; i++) release(&f, acquire(&f, i % 2 ? f.one : f.two));
    s = stats_of(&f);
    CHECK(s.sandboxes == 2 && s.made == 2);
    CHECK_EQ(s.moved, HLSNAP__POOL_NEW / HLSNAP__POOL_GUEST - 1);
    for (i = 0; i < 60; i++) release(&f, acquire(&f, i % 2 ? f.one : f.other));
    s = stats_of(&f);
    CHECK(s.sandboxes == 2 && s.moved == HLSNAP__POOL_NEW / HLSNAP__POOL_GUEST); /* the one that nobody wants any more */
    for (i = 0; i < 60; i++) release(&f, acquire(&f, i % 3 == 0 ? f.one : i % 3 == 1 ? f.other : f.two));
    s = stats_of(&f);
    CHECK(s.sandboxes == 3 && s.made == 3 && s.moved < HLSNAP__POOL_NEW / HLSNAP__POOL_GUEST + HLSNAP__POOL_NEW);
    CHECK_EQ(s.ready + s.moved + s.made, s.acquired);
    end(&f);
}

/* Of several at one snapshot a thread gets the one that it used last, not the one that came back last. */
static fixture *shared;
static void *acquire_there(void *user) {
    *(hlsnap_sandbox **)user = acquire(shared, shared->one);
    return NULL;
}
static void own_first(void) {
    fixture f;
    pthread_t t;
    hlsnap_sandbox *mine, *theirs = NULL, *again = NULL;
    begin(&f);
    make(&f);
    shared = &f;
    mine = acquire(&f, f.one);
    CHECK_EQ(pthread_create(&t, NULL, acquire_there, &theirs), 0);
    pthread_join(t, NULL);
    CHECK(theirs && theirs != mine);
    release(&f, mine);
    release(&f, theirs);
    CHECK(acquire(&f, f.one) == mine);
    CHECK_EQ(pthread_create(&t, NULL, acquire_there, &again), 0);
    pthread_join(t, NULL);
    CHECK(again == theirs);
    CHECK_EQ(stats_of(&f).made, 2);
    release(&f, mine);
    release(&f, again);
    end(&f);
}

/* Those who take turns at one snapshot have a sandbox each in the end, and no more than that; nor more than there may be. */
static void *turn_there(void *user) {
    release(shared, *(hlsnap_sandbox **)user = acquire(shared, shared->one));
    return NULL;
}
static void threads_in_turns(uint32_t most) {
    fixture f;
    pthread_t t;
    hlsnap_sandbox *mine = NULL, *theirs = NULL;
    uint64_t early = 0;
    int i;
    begin(&f);
    f.desc.max_sandboxes = most;
    make(&f);
    shared = &f;
    for (i = 0; i < 200; i++) {
        release(&f, mine = acquire(&f, f.one));
        CHECK_EQ(pthread_create(&t, NULL, turn_there, &theirs), 0);
        pthread_join(t, NULL);
        if (i == 20) early = stats_of(&f).made;
    }
    CHECK_EQ(early, 1); /* it pays when it was a stranger's often enough */
    CHECK_EQ(stats_of(&f).made, most > 1 ? 2 : 1);
    CHECK_EQ(mine == theirs, most == 1);
    end(&f);
}
static void one_each(void) {
    threads_in_turns(8);
    threads_in_turns(1);
}

static void *release_soon(void *user) {
    usleep(50000);
    release(shared, (hlsnap_sandbox *)user);
    return NULL;
}
static void bounds(void) {
    fixture f;
    hlsnap_sandbox *a, *b, *c;
    pthread_t t;
    uint64_t from;
    begin(&f);
    f.desc.max_sandboxes = 2;
    make(&f);
    a = acquire(&f, f.one);
    b = acquire(&f, f.two);
    CHECK_EQ(hlsnap_pool_acquire(f.pool, f.one, &c, &err), HLSNAP_ERR_BUSY);
    CHECK(!c && strstr(err.msg, "2 sandboxes of at most 2, 0 of them idle") != NULL);
    CHECK(hlsnap_result_transient(&err));
    CHECK_EQ(hlsnap_pool_prefetch(f.pool, f.one, 1, &err), HLSNAP_ERR_BUSY);
    release(&f, a);
    CHECK(acquire(&f, f.one) == a);
    CHECK_EQ(stats_of(&f).refused, 1); /* acquires only */
    hlsnap_sandbox_destroy(a); /* is another way to give it back */
    CHECK_EQ(stats_of(&f).sandboxes, 1);
    a = acquire(&f, f.one);
    release(&f, a);
    release(&f, b);
    end(&f);

    begin(&f);
    f.desc.max_sandboxes = 1;
    f.desc.wait_ns = 100 * MS;
    make(&f);
    shared = &f;
    a = acquire(&f, f.one);
    from = hlsnap__now_ns();
    CHECK_EQ(hlsnap_pool_acquire(f.pool, f.one, &c, &err), HLSNAP_ERR_BUSY);
    CHECK(hlsnap__now_ns() - from >= 100 * MS);
    release(&f, a);
    hlsnap_pool_destroy(f.pool);
    f.desc.wait_ns = UINT64_MAX;
    make(&f);
    a = acquire(&f, f.one);
    CHECK_EQ(pthread_create(&t, NULL, release_soon, a), 0);
    b = acquire(&f, f.two);
    CHECK(a == b);
    pthread_join(t, NULL);
    CHECK_EQ(stats_of(&f).waited, 1);
    CHECK_EQ(pthread_create(&t, NULL, release_soon, b), 0);
    f.sandbox = host_desc(), f.sandbox.pool = f.pool;
    CHECK_EQ(hlsnap_sandbox_create_from(f.one, &f.sandbox, &c, &err), HLSNAP_OK); /* the idle one makes room */
    pthread_join(t, NULL);
    CHECK(stats_of(&f).sandboxes == 1 && stats_of(&f).ended == 1);
    hlsnap_sandbox_destroy(c);
    end(&f);
}

/* At the bound, with nothing idle, there is none for a desc of one's own either. */
static void busy_for_others_descs(void) {
    fixture f;
    hlsnap_sandbox *a, *c = NULL;
    begin(&f);
    f.desc.max_sandboxes = 1;
    make(&f);
    a = acquire(&f, f.one);
    f.sandbox = host_desc(), f.sandbox.pool = f.pool;
    CHECK_EQ(hlsnap_sandbox_create_from(f.one, &f.sandbox, &c, &err), HLSNAP_ERR_BUSY);
    CHECK(!c && hlsnap_result_transient(&err) && strstr(err.msg, "1 sandboxes of at most 1, 0 of them idle"));
    CHECK_EQ(stats_of(&f).sandboxes, 1);
    release(&f, a);
    end(&f);
}

/* Those that are idle for longest end when there is more memory than max_bytes; while all of it is in use nothing is made. */
static void bytes(void) {
    fixture f;
    hlsnap_sandbox *sb[4], *more;
    uint32_t i;
    hlsnap_pool_stats s;
    begin(&f);
    f.desc.max_bytes = 260 * 4096;
    make(&f);
    for (i = 0; i < 3; i++) sb[i] = acquire(&f, f.one);
    for (i = 0; i < 3; i++) CHECK_EQ(dirty(sb[i], 10, 100, 1), HLSNAP_OK);
    for (i = 0; i < 3; i++) release(&f, sb[i]);
    s = stats_of(&f);
    CHECK(s.sandboxes == 2 && s.ended == 1 && s.bytes >= 200 * 4096 && s.bytes <= 260 * 4096);
    for (i = 0; i < 2; i++) sb[i] = acquire(&f, f.one);
    for (i = 0; i < 2; i++) CHECK_EQ(dirty(sb[i], 10, 250, 1), HLSNAP_OK);
    release(&f, sb[0]);
    s = stats_of(&f);
    CHECK(s.sandboxes == 1 && s.ended == 2 && s.idle == 0);
    CHECK_EQ(dirty(sb[1], 10, 251, 1), HLSNAP_OK);
    release(&f, sb[1]);
    end(&f);

    begin(&f);
    f.desc.max_bytes = 1;
    make(&f);
    sb[0] = acquire(&f, f.one); /* the first one is made: nothing is known of it */
    sb[0]->pooled.bytes = 5000;
    f.pool->stats.bytes = 5000;
    CHECK_EQ(hlsnap_pool_acquire(f.pool, f.one, &more, &err), HLSNAP_ERR_BUSY);
    CHECK(strstr(err.msg, "5000 bytes of 1") != NULL);
    release(&f, sb[0]);
    CHECK(stats_of(&f).sandboxes == 0 && stats_of(&f).bytes == 0);
    end(&f);
}

static bool none_left(const fixture *f) { return stats_of(f).sandboxes == 0; }
static bool all_warm(const fixture *f) {
    bool is;
    pthread_mutex_lock(&f->pool->lock);
    is = f->pool->num_warm == 2;
    pthread_mutex_unlock(&f->pool->lock);
    return is;
}
static void idle_ones_end(void) {
    fixture f;
    uint64_t from;
    begin(&f);
    f.desc.idle_ns = 50 * MS;
    make(&f);
    CHECK_EQ(hlsnap_pool_prefetch(f.pool, f.one, 3, &err), HLSNAP_OK);
    CHECK_EQ(stats_of(&f).idle, 3);
    from = hlsnap__now_ns();
    release(&f, acquire(&f, f.one));
    CHECK(within(none_left, &f));
    CHECK(hlsnap__now_ns() - from >= 40 * MS);
    CHECK_EQ(stats_of(&f).ended, 3);
    release(&f, acquire(&f, f.two)); /* it goes on */
    CHECK_EQ(stats_of(&f).made, 1);
    end(&f);
    begin(&f);
    f.desc.idle_ns = UINT64_MAX;
    make(&f);
    release(&f, acquire(&f, f.one));
    usleep(20000);
    CHECK_EQ(stats_of(&f).idle, 1);
    end(&f);
}

/* Warm VMs go to new sandboxes, also to those of one's own desc, and are made again. */
static void warm(void) {
    fixture f;
    hlsnap_sandbox *sb, *own, *more;
    begin(&f);
    f.desc.warm = 2;
    make(&f);
    CHECK_EQ(hv.shells, 2);
    f.pool->retry_ns = UINT64_MAX; /* not now */
    sb = acquire(&f, f.one);
    CHECK(hv.shells == 2 && f.pool->num_warm == 1);
    hlsnap_sandbox_destroy(sb);
    pthread_mutex_lock(&f.pool->lock);
    f.pool->retry_ns = 0;
    pthread_mutex_unlock(&f.pool->lock);
    sb = acquire(&f, f.one);
    CHECK(within(all_warm, &f));
    f.sandbox = host_desc();
    f.sandbox.pool = f.pool;
    CHECK_EQ(hlsnap_sandbox_create_from(f.two, &f.sandbox, &own, &err), HLSNAP_OK);
    CHECK_EQ(stats_of(&f).sandboxes, 2);
    f.sandbox.cancel_signal = SIGRTMIN;
    CHECK_EQ(hlsnap_sandbox_create_from(f.two, &f.sandbox, &more, &err), HLSNAP_ERR_ARG);
    CHECK(!more);
    f.sandbox = host_desc();
    hlsnap_pool_trim(f.pool, NULL);
    CHECK_EQ(f.pool->num_warm, 0);
    release(&f, sb);
    hlsnap_sandbox_destroy(own);
    end(&f);
}

static bool clean(const fixture *f) {
    bool is;
    pthread_mutex_lock(&f->pool->lock);
    is = f->pool->idle && !f->pool->idle->pooled.dirty;
    pthread_mutex_unlock(&f->pool->lock);
    return is;
}
/* What takes long to put back is put back by the pool's thread, unless somebody wants it before that. */
static void slow_ones(void) {
    fixture f;
    hlsnap_sandbox *sb;
    uint32_t i;
    begin(&f);
    f.desc.max_sandboxes = 1;
    make(&f);
    sb = acquire(&f, f.one);
    for (i = 0; i < 40; i++) {
        sb->pooled.cost_ns = HLSNAP__POOL_SLOW_NS + 1;
        CHECK_EQ(dirty(sb, 0, 300, 9), HLSNAP_OK);
        hlsnap_pool_release(f.pool, sb);
        if (i % 2) CHECK(within(clean, &f));
        sb = acquire(&f, f.one);
        CHECK_EQ(word(sb, 299), 0);
    }
    CHECK(f.pool->threaded);
    for (i = 0; i < 300; i++) { /* the only one, which is being put back just now, is waited for, not refused */
        uint64_t from;
        sb->pooled.cost_ns = HLSNAP__POOL_SLOW_NS + 1;
        CHECK_EQ(dirty(sb, 0, 500, 9), HLSNAP_OK);
        hlsnap_pool_release(f.pool, sb);
        for (from = hlsnap__now_ns(); hlsnap__now_ns() - from < i * 1500;) { }
        sb = acquire(&f, f.one);
        if (!sb) break;
    }
    CHECK(stats_of(&f).ended == 0 && stats_of(&f).refused == 0);
    hlsnap_pool_release(f.pool, sb);
    end(&f);
}

/* The thread takes no signal of the process's; a fault of its own is told to whoever handles it. */
static void thread_signals(void) {
    static const int faults[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS};
    static const int others[] = {SIGHUP, SIGINT, SIGTERM, SIGALRM, SIGCHLD, SIGURG, SIGPROF};
    unsigned long long blocked = 0, sent = 0, own = 0;
    const struct dirent *entry;
    char path[300], line[256];
    uint32_t right = 0;
    fixture f;
    DIR *tasks;
    size_t i;
    for (i = 0; i < HLSNAP_COUNT(faults); i++) own |= 1ull << (faults[i] - 1);
    for (i = 0; i < HLSNAP_COUNT(others); i++) sent |= 1ull << (others[i] - 1);
    begin(&f);
    f.desc.warm = 2;
    make(&f);
    release(&f, acquire(&f, f.one));
    CHECK(within(all_warm, &f) && f.pool->threaded);
    tasks = opendir("/proc/self/task");
    while (tasks && (entry = readdir(tasks))) { /* ThreadSanitizer has one, too, which blocks all */
        FILE *status;
        if (entry->d_name[0] == '.' || atoi(entry->d_name) == getpid()) continue;
        snprintf(path, sizeof(path), "/proc/self/task/%.255s/status", entry->d_name);
        status = fopen(path, "r");
        while (status && fgets(line, sizeof(line), status))
            right += sscanf(line, "SigBlk: %llx", &blocked) == 1 && (blocked & sent) == sent && !(blocked & own);
        if (status) fclose(status);
    }
    if (tasks) closedir(tasks);
    CHECK_EQ(right, 1);
    end(&f);
}

static void trims(void) {
    fixture f;
    begin(&f);
    make(&f);
    CHECK_EQ(hlsnap_pool_prefetch(f.pool, f.one, 3, &err), HLSNAP_OK);
    CHECK_EQ(hlsnap_pool_prefetch(f.pool, f.one, 2, &err), HLSNAP_OK);
    CHECK_EQ(hlsnap_pool_prefetch(f.pool, f.other, 2, &err), HLSNAP_OK);
    CHECK_EQ(stats_of(&f).idle, 5);
    hlsnap_pool_trim(f.pool, f.two);
    CHECK_EQ(stats_of(&f).idle, 5);
    hlsnap_pool_trim(f.pool, f.one);
    CHECK_EQ(stats_of(&f).idle, 2);
    release(&f, acquire(&f, f.other));
    CHECK_EQ(stats_of(&f).ready, 1);
    hlsnap_pool_trim(f.pool, NULL);
    CHECK(stats_of(&f).idle == 0 && stats_of(&f).sandboxes == 0 && stats_of(&f).bytes == 0);
    end(&f);
}

/* Inside a host function of its own, it ends when the call does. */
static fixture *in_call;
static hlsnap_sandbox *calling;
static void release_it(void) { hlsnap_pool_release(in_call->pool, calling); }
static void destroy_it(void) { hlsnap_pool_destroy(in_call->pool); }
static void *acquires_in_vain(void *user) {
    hlsnap_sandbox *sb;
    hlsnap_error e;
    *(hlsnap_result *)user = hlsnap_pool_acquire(in_call->pool, in_call->one, &sb, &e);
    return NULL;
}
static bool somebody_waits(const fixture *f) {
    bool is;
    pthread_mutex_lock(&f->pool->lock);
    is = f->pool->waiting > 0;
    pthread_mutex_unlock(&f->pool->lock);
    return is;
}
static void ends_in_use(void) {
    fixture f;
    hlsnap_sandbox *sb, *second;
    hlsnap_result got = HLSNAP_OK;
    pthread_t t;
    begin(&f);
    make(&f);
    in_call = &f;
    calling = acquire(&f, f.one);
    on_hook = release_it;
    CHECK_EQ(call0(calling, "hook"), HLSNAP_ERR_CANCELLED); /* as by hlsnap_sandbox_destroy */
    CHECK(stats_of(&f).sandboxes == 0 && hv.shells == 0);
    calling = acquire(&f, f.one);
    second = acquire(&f, f.one);
    on_hook = destroy_it;
    CHECK_EQ(call0(calling, "hook"), HLSNAP_OK); /* they go on without it */
    CHECK_EQ(dirty(second, 0, 3, 4), HLSNAP_OK);
    hlsnap_pool_release(f.pool, second);
    CHECK_EQ(hv.shells, 1);
    hlsnap_sandbox_destroy(calling); /* and with the last of them the pool is gone */
    f.pool = NULL;
    end(&f);

    begin(&f);
    f.desc.max_sandboxes = 1;
    f.desc.wait_ns = UINT64_MAX;
    make(&f);
    sb = acquire(&f, f.one);
    CHECK_EQ(pthread_create(&t, NULL, acquires_in_vain, &got), 0);
    CHECK(within(somebody_waits, &f));
    hlsnap_pool_destroy(f.pool);
    pthread_join(t, NULL);
    CHECK_EQ(got, HLSNAP_ERR_STATE);
    hlsnap_pool_release(f.pool, sb);
    f.pool = NULL;
    end(&f);
}

/* The child of a fork has neither VMs nor the thread, which may hold the lock. */
static void forks(void) {
    fixture f;
    hlsnap_sandbox *sb, *idle;
    int status;
    pid_t pid;
    begin(&f);
    f.desc.warm = 1;
    f.desc.idle_ns = 3600ull * 1000 * MS;
    make(&f);
    sb = acquire(&f, f.one);
    idle = acquire(&f, f.one);
    hlsnap_pool_release(f.pool, idle);
    pthread_mutex_lock(&f.pool->lock);
    fflush(stdout);
    pid = fork();
    if (pid == 0) {
        hlsnap_sandbox *got;
        hlsnap_pool_stats s;
        test_bad = 0;
        alarm(20);
        CHECK_EQ(hlsnap_pool_acquire(f.pool, f.one, &got, &err), HLSNAP_ERR_STATE);
        CHECK_EQ(hlsnap_pool_prefetch(f.pool, f.one, 9, &err), HLSNAP_ERR_STATE);
        hlsnap_pool_get_stats(f.pool, &s);
        CHECK_EQ(s.sandboxes, 0);
        hlsnap_pool_trim(f.pool, NULL);
        hlsnap_pool_release(f.pool, sb);
        hlsnap_pool_destroy(f.pool);
        _exit(test_bad != 0);
    }
    pthread_mutex_unlock(&f.pool->lock);
    CHECK(pid > 0 && waitpid(pid, &status, 0) == pid && status == 0);
    CHECK_EQ(dirty(sb, 0, 3, 4), HLSNAP_OK);
    hlsnap_pool_release(f.pool, sb);
    CHECK_EQ(stats_of(&f).idle, 2);
    end(&f);
}

/* A snapshot that cannot be started costs no place. */
static void failures(void) {
    fixture f;
    hlsnap_sandbox *sb, *more;
    uint32_t i;
    begin(&f);
    f.sandbox.num_functions = 1; /* too few for GUEST_ALL */
    f.desc.max_sandboxes = 2;
    make(&f);
    for (i = 0; i < 5; i++) CHECK_EQ(hlsnap_pool_acquire(f.pool, f.one, &sb, &err), HLSNAP_ERR_CONTRACT);
    CHECK_EQ(stats_of(&f).sandboxes, 0);
    CHECK_EQ(hlsnap_pool_prefetch(f.pool, f.one, 1, &err), HLSNAP_ERR_CONTRACT);
    sb = acquire(&f, f.other);
    hlsnap_pool_release(f.pool, sb);
    for (i = 0; i < 5; i++) CHECK_EQ(hlsnap_pool_acquire(f.pool, f.one, &sb, &err), HLSNAP_ERR_CONTRACT);
    CHECK(stats_of(&f).acquired == 1 && stats_of(&f).sandboxes == 1 && stats_of(&f).idle == 1);
    CHECK_EQ(stats_of(&f).ended, 0); /* nor does it cost others theirs */
    release(&f, acquire(&f, f.other));
    CHECK(stats_of(&f).ready == 1 && stats_of(&f).made == 1);
    end(&f);

    begin(&f); /* where no new one is to be had just now, an idle one is moved although it is a new one's turn */
    make(&f);
    release(&f, acquire(&f, f.one));
    f.pool->steals = HLSNAP__POOL_NEW;
    inject_arm(0, -1);
    CHECK_EQ(hlsnap_pool_acquire(f.pool, f.two, &sb, &err), HLSNAP_OK);
    CHECK(inject_disarm());
    CHECK(stats_of(&f).moved == 1 && stats_of(&f).ended == 0 && stats_of(&f).sandboxes == 1);
    CHECK_EQ(word(sb, 0), 22);
    inject_arm(0, -1); /* and with nothing idle it is an error, which counts nothing */
    CHECK_EQ(hlsnap_pool_acquire(f.pool, f.two, &more, &err), HLSNAP_ERR_MEMORY);
    CHECK(inject_disarm());
    CHECK(!more && stats_of(&f).sandboxes == 1 && stats_of(&f).ended == 0);
    release(&f, sb);
    end(&f);
}

/* Who waits for one that the thread has in hand waits no longer than for that: one gets it, the others are told. */
typedef struct waiter { hlsnap_result r; hlsnap_sandbox *sb; uint64_t at; } waiter;
static void *waits(void *user) {
    waiter *w = (waiter *)user;
    hlsnap_error e;
    w->r = hlsnap_pool_acquire(shared->pool, shared->one, &w->sb, &e);
    w->at = hlsnap__now_ns();
    return NULL;
}
static bool three_wait(const fixture *f) {
    bool is;
    pthread_mutex_lock(&f->pool->lock);
    is = f->pool->waiting == 3;
    pthread_mutex_unlock(&f->pool->lock);
    return is;
}
static void in_hand(void) {
    fixture f;
    hlsnap_sandbox *sb;
    pthread_t t[3];
    waiter w[3];
    uint64_t from;
    int i, got = 0, busy = 0;
    begin(&f);
    f.desc.max_sandboxes = 1;
    make(&f);
    shared = &f;
    sb = acquire(&f, f.one);
    pthread_mutex_lock(&f.pool->lock); /* as the thread would have it */
    CHECK_EQ(sb->pooled.acquired, true);
    sb->pooled.acquired = false;
    f.pool->in_hand = sb;
    pthread_mutex_unlock(&f.pool->lock);
    for (i = 0; i < 3; i++) CHECK_EQ(pthread_create(&t[i], NULL, waits, &w[i]), 0);
    CHECK(within(three_wait, &f));
    from = hlsnap__now_ns();
    pthread_mutex_lock(&f.pool->lock);
    hlsnap__pool_put_back_there(f.pool, sb);
    pthread_mutex_unlock(&f.pool->lock);
    for (i = 0; i < 3; i++) {
        pthread_join(t[i], NULL);
        got += w[i].r == HLSNAP_OK;
        busy += w[i].r == HLSNAP_ERR_BUSY;
        CHECK(w[i].at - from < 5000000000u);
        if (w[i].sb) sb = w[i].sb;
    }
    CHECK(got == 1 && busy == 2);
    pthread_mutex_lock(&f.pool->lock); /* trimmed while it is put back: it does not stay */
    sb->pooled.acquired = false;
    f.pool->in_hand = sb;
    pthread_mutex_unlock(&f.pool->lock);
    hlsnap_pool_trim(f.pool, f.two);
    CHECK_EQ(sb->pooled.changed, false);
    hlsnap_pool_trim(f.pool, f.one);
    pthread_mutex_lock(&f.pool->lock);
    hlsnap__pool_put_back_there(f.pool, sb);
    pthread_mutex_unlock(&f.pool->lock);
    CHECK(stats_of(&f).sandboxes == 0 && stats_of(&f).ended == 1);
    end(&f);
}

/* One that comes back may make room for several. */
static void room_for_all(void) {
    fixture f;
    hlsnap_sandbox *sb;
    pthread_t t[3];
    waiter w[3];
    int i;
    begin(&f);
    f.desc.max_bytes = 1;
    f.desc.wait_ns = 10000ull * MS;
    make(&f);
    shared = &f;
    sb = acquire(&f, f.one);
    pthread_mutex_lock(&f.pool->lock);
    sb->pooled.bytes = f.pool->stats.bytes = 5000;
    pthread_mutex_unlock(&f.pool->lock);
    for (i = 0; i < 3; i++) CHECK_EQ(pthread_create(&t[i], NULL, waits, &w[i]), 0);
    CHECK(within(three_wait, &f));
    release(&f, sb);
    for (i = 0; i < 3; i++) {
        pthread_join(t[i], NULL);
        CHECK_EQ(w[i].r, HLSNAP_OK);
    }
    for (i = 0; i < 3; i++) if (w[i].sb) release(&f, w[i].sb);
    end(&f);
}

/* What is made while the pool is destroyed ends with it. */
static void close_it(void) {
    pthread_mutex_lock(&in_call->pool->lock);
    in_call->pool->closed = true;
    pthread_mutex_unlock(&in_call->pool->lock);
    inject.on_alloc = NULL;
}
static void made_too_late(void) {
    fixture f;
    begin(&f);
    make(&f);
    in_call = &f;
    inject.on_alloc = close_it;
    CHECK_EQ(hlsnap_pool_prefetch(f.pool, f.one, 3, &err), HLSNAP_ERR_STATE);
    CHECK_EQ(stats_of(&f).sandboxes, 0);
    end(&f);
}

/* A snapshot whose guest has not run its init runs it when it is put back: on the thread that releases it, never on the pool's. */
static void before_init(void) {
    const hlsnap_guest_desc g = fake_guest(GUEST_ALL, 64);
    hlsnap_snapshot *s;
    hlsnap_sandbox *sb;
    fixture f;
    begin(&f);
    make(&f);
    CHECK_EQ(hlsnap_snapshot_from_guest(&g, &s, &err), HLSNAP_OK);
    CHECK_EQ(hlsnap_pool_acquire(f.pool, s, &sb, &err), HLSNAP_OK);
    sb->pooled.cost_ns = HLSNAP__POOL_SLOW_NS + 1;
    hlsnap_pool_release(f.pool, sb);
    CHECK(!f.pool->threaded && f.pool->idle == sb && !sb->pooled.dirty);
    hlsnap_snapshot_release(s);
    end(&f);
}

/* A release teaches what the next new one has ready, which counts. */
static void learned(void) {
    hlsnap_sandbox *a, *b;
    hlsnap_stats stats;
    fixture f;
    begin(&f);
    f.one->guest->learn = true;
    make(&f);
    a = acquire(&f, f.one);
    CHECK_EQ(call0(a, "nop"), HLSNAP_OK);
    CHECK(!f.one->learned && a->memory.learns);
    release(&f, a);
    CHECK(f.one->learned && f.one->learned->pages == a->memory.num_hot);
    a = acquire(&f, f.one);
    b = acquire(&f, f.one);
    hlsnap_sandbox_get_stats(b, &stats);
    CHECK(stats.prefaulted_pages == f.one->learned->pages && stats.hot_pages >= stats.prefaulted_pages);
    CHECK_EQ(call0(b, "nop"), HLSNAP_OK);
    release(&f, b);
    CHECK(b->pooled.bytes >= stats.prefaulted_pages * 4096);
    release(&f, a);
    end(&f);
}

/* The thread is woken for what it would oversleep, not at each release. */
static void sleeps(void) {
    fixture f;
    int32_t work;
    int i;
    begin(&f);
    f.desc.idle_ns = 3600000ull * MS;
    make(&f);
    release(&f, acquire(&f, f.one));
    CHECK(f.pool->threaded);
    for (i = 0; i < 1000; i++) { /* until it sleeps */
        pthread_mutex_lock(&f.pool->lock);
        work = f.pool->wakes_ns ? f.pool->work : 0;
        pthread_mutex_unlock(&f.pool->lock);
        if (work) break;
        usleep(1000);
    }
    for (i = 0; i < 50; i++) release(&f, acquire(&f, f.one));
    pthread_mutex_lock(&f.pool->lock);
    CHECK_EQ(f.pool->work, work);
    pthread_mutex_unlock(&f.pool->lock);
    end(&f);
}

static const test_row tests[] = {TEST(arguments), TEST(desc_is_copied), TEST(comes_back_clean), TEST(tenants_own), TEST(moves),
                                 TEST(turns), TEST(own_first), TEST(one_each), TEST(bounds), TEST(busy_for_others_descs), TEST(bytes), TEST(idle_ones_end), TEST(warm),
                                 TEST(slow_ones), TEST(thread_signals), TEST(trims), TEST(ends_in_use), TEST(forks), TEST(failures), TEST(in_hand), TEST(room_for_all),
                                 TEST(made_too_late), TEST(before_init), TEST(learned), TEST(sleeps)};
int main(int argc, char **argv) { return (test_words = err.msg, TEST_MAIN(tests, argc, argv)); }

/* 11_branch.c - a search that branches: each state is a whole machine in the middle of its work, and going back to one costs
   microseconds. A guest, warmed once, looks for a short round trip through 300 cities; 50 times, 200 branches go on from where
   their parents stood, some of the changes that they try run for ever or crash, and the best half goes on. You learn: snapshots
   of snapshots, of which there may be ten thousand, since each holds what changed; a limit of CPU time; that memory stays flat.

   cc: cc -std=c11 -O2 -I.. 11_branch.c -o 11_branch
   run: ./11_branch
   prints: 50 generations of 200 branches: a round trip of 14509, not 157055; 108 crashed, 101 ran for ever; memory stayed flat */
#define HLSNAP_IMPLEMENTATION
#include "hlsnap.h"
#include "hlsnap_kvm.h"
#include <stdio.h>

enum { CITIES = 300, BRANCHES = 200, GENERATIONS = 50, TRIES = 3000 };

/* The guest: its state is the tour, and a table of distances that is made once. */
static uint32_t distance[CITIES][CITIES], tour[CITIES];

static uint32_t dice(uint64_t *seed) {
    *seed = *seed * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(*seed >> 33);
}

static uint32_t root(uint32_t n) {
    uint32_t r = 0, bit;
    for (bit = 1u << 15; bit; bit >>= 1)
        if ((r + bit) * (r + bit) <= n) r += bit;
    return r;
}

static uint32_t leg(uint32_t i) { return distance[tour[i]][tour[(i + 1) % CITIES]]; }

static uint32_t length(void) {
    uint32_t i, sum = 0;
    for (i = 0; i < CITIES; i++) sum += leg(i);
    return sum;
}

/* Turns the part from i + 1 to k around, where that is shorter. */
static void turn(uint32_t i, uint32_t k) {
    const uint32_t a = tour[i], b = tour[i + 1], c = tour[k], d = tour[(k + 1) % CITIES];
    if (distance[a][c] + distance[b][d] >= distance[a][b] + distance[c][d]) return;
    for (i++; i < k; i++, k--) {
        const uint32_t t = tour[i];
        tour[i] = tour[k];
        tour[k] = t;
    }
}

static hlsnap_result warm(hlsnap_call *call, void *user) {
    static uint32_t x[CITIES], y[CITIES];
    uint64_t seed = 11;
    uint32_t i, k;
    (void)user;
    for (i = 0; i < CITIES; i++) x[i] = dice(&seed) % 1000, y[i] = dice(&seed) % 1000, tour[i] = i;
    for (i = 0; i < CITIES; i++)
        for (k = 0; k < CITIES; k++)
            distance[i][k] = root((x[i] - x[k]) * (x[i] - x[k]) + (y[i] - y[k]) * (y[i] - y[k]));
    return hlsnap_call_return(call, hlsnap_u32(length()));
}

static hlsnap_result improve(hlsnap_call *call, void *user) {
    uint64_t seed = hlsnap_call_arg(call, 0).as.u64;
    uint32_t i, luck = dice(&seed) % 100;
    while (luck == 7) __asm__ volatile("" ::: "memory"); /* a bug in a part that nobody has to trust */
    if (luck == 13) *(volatile uint32_t *)user = 1;
    for (i = 0; i < TRIES; i++) {
        const uint32_t a = dice(&seed) % (CITIES - 1), b = dice(&seed) % (CITIES - 1);
        if (a != b) turn(a < b ? a : b, a < b ? b : a);
    }
    return hlsnap_call_return(call, hlsnap_u32(length()));
}

static const hlsnap_function exports[] = {{"warm", "u32()", warm, NULL}, {"improve", "u32(u64)", improve, NULL}};
static const hlsnap_module search = {exports, HLSNAP_COUNT(exports), NULL, 0};

/* The host. */
typedef struct branch {
    hlsnap_snapshot *at;
    uint32_t length;
} branch;

static int shorter(const void *a, const void *b) {
    const branch *x = (const branch *)a, *y = (const branch *)b;
    return x->length < y->length ? -1 : x->length > y->length;
}

static int fail(hlsnap_result r, const hlsnap_error *err) {
    fprintf(stderr, "%s: %s\n", hlsnap_result_name(r), err->msg);
    return r == HLSNAP_ERR_HYPERVISOR ? 77 : 1;
}

static long resident(void) { /* pages */
    long pages = 0;
    FILE *f = fopen("/proc/self/statm", "r");
    if (!f || fscanf(f, "%*d %ld", &pages) != 1) pages = 0;
    if (f) fclose(f);
    return pages;
}

/* One step from where a parent stood; a branch that crashes or runs for ever leaves its place to the parent. */
static hlsnap_result grow(hlsnap_sandbox *sb, hlsnap_export target, const branch *parent, uint64_t seed, branch *child,
                          hlsnap_error *err) {
    hlsnap_value arg = hlsnap_u64(seed), out;
    hlsnap_invocation call = HLSNAP_ZERO;
    hlsnap_result r = hlsnap_sandbox_restore(sb, parent->at, err), ended;
    if (r) return r;
    call.target = target;
    call.args = &arg;
    call.num_args = 1;
    call.cpu_ns = 20000000; /* a step takes a tenth of a millisecond */
    ended = hlsnap_sandbox_invoke(sb, &call, 1, &out, NULL, err);
    *child = *parent;
    if (ended) {
        hlsnap_snapshot_retain(parent->at);
        return ended;
    }
    child->length = out.as.u32;
    return hlsnap_sandbox_snapshot(sb, &child->at, err);
}

int main(void) {
    static branch now[BRANCHES], next[BRANCHES];
    hlsnap_guest_desc guest = HLSNAP_ZERO;
    hlsnap_sandbox_desc desc = HLSNAP_ZERO;
    hlsnap_sandbox *sb;
    hlsnap_snapshot *warmed;
    hlsnap_export target;
    hlsnap_value first;
    hlsnap_error err;
    hlsnap_result r;
    uint32_t generation, i, crashed = 0, endless = 0;
    long early = 0, late;

    guest.self = &search;
    desc.hypervisor = hlsnap_kvm();
    if ((r = hlsnap_sandbox_create(&guest, &desc, &sb, &err)) != HLSNAP_OK) return fail(r, &err);
    r = hlsnap_sandbox_call(sb, "warm", HLSNAP_NO_ARGS, &first, &err);
    if (!r) r = hlsnap_sandbox_find(sb, "improve", "u32(u64)", &target, &err);
    if (!r) r = hlsnap_sandbox_snapshot(sb, &warmed, &err);
    if (r) return fail(r, &err);
    for (i = 0; i < BRANCHES; i++) {
        now[i].at = hlsnap_snapshot_retain(warmed);
        now[i].length = first.as.u32;
    }
    for (generation = 0; generation < GENERATIONS; generation++) {
        for (i = 0; i < BRANCHES; i++) {
            r = grow(sb, target, &now[i / 2], 1000 * generation + i, &next[i], &err);
            crashed += r == HLSNAP_ERR_FAULT;
            endless += r == HLSNAP_ERR_TIMEOUT;
            if (r && r != HLSNAP_ERR_FAULT && r != HLSNAP_ERR_TIMEOUT) return fail(r, &err);
        }
        for (i = 0; i < BRANCHES; i++) hlsnap_snapshot_release(now[i].at);
        memcpy(now, next, sizeof(now));
        qsort(now, BRANCHES, sizeof(now[0]), shorter);
        if (generation == GENERATIONS / 5) early = resident();
    }
    late = resident();
    printf("%d generations of %d branches: a round trip of %u, not %u; %u crashed, %u ran for ever; memory %s\n", GENERATIONS,
           BRANCHES, now[0].length, first.as.u32, crashed, endless, late < early + early / 2 ? "stayed flat" : "grew");
    for (i = 0; i < BRANCHES; i++) hlsnap_snapshot_release(now[i].at);
    hlsnap_snapshot_release(warmed);
    hlsnap_sandbox_destroy(sb);
    return 0;
}

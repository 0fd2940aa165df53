/* scale.c - what a layout costs as it grows: save, load, ls, tag, gc at 250, 1,000, 4,000 and 10,000 snapshots; and a chain of
   1,000 of which each is taken of the one before.

   cc:  see ./run
   run: ./scale dir     dir: where the layouts go

   It needs no /dev/kvm: nothing runs, the guest is that of ../tests/fake.h. Each snapshot of the first layout changes a page, so
   that each is four small files more: two layers, the lower one shared. Prints a row per figure and number of snapshots: name,
   unit, the median of 5 by the clock and in processor time, tab-separated; a gc removes one snapshot. Where the library refuses one more snapshot, it says so, and how
   many there were, and ends.
   Each snapshot of the chain changes 8 random pages of 16 MiB. Rows at 10, 100 and 1,000 of them: milliseconds of a save (the mean
   since the row before) and of a load of the last (median of 5), its layers, and the bytes of memory layers written for each byte
   changed until then. */
#define HLSNAP_IMPLEMENTATION
#include "fake.h"
#include "hlsnap_oci.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { ROUNDS = 5, CHAIN_ROOM = 4096, CHAIN_PAGES = 8 };

typedef struct scale {
    const char *dir;
    hlsnap_sandbox *sb;
    uint64_t at;   /* address of pages that the guest does not use */
    uint64_t next; /* what is written there */
    char tag[32];  /* of the last save */
    int seen;
    hlsnap_error err;
} scale;

static void bad(const scale *s, const char *what) {
    fprintf(stderr, "scale: %s: %s\n", what, s->err.msg);
    exit(1);
}

/* Milliseconds: of the clock, and of the processor's time, which other work on the machine changes little. */
typedef struct span { double wall, cpu; } span;

static double ms(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}
static span now(void) { return (span){ms(CLOCK_MONOTONIC), ms(CLOCK_PROCESS_CPUTIME_ID)}; }
static span since(span t) { return (span){now().wall - t.wall, now().cpu - t.cpu}; }

/* A guest of that many pages that it does not use. */
static void begin(scale *s, uint64_t pages) {
    static const fake_program program = {fake_runtime, NULL, 0, NULL, 0};
    static fake hv;
    const hlsnap_guest_desc g = fake_guest(0, pages + 16);
    hlsnap_sandbox_desc d = HLSNAP_ZERO;
    hlsnap_snapshot *snapshot;
    hlsnap_region heap;
    fake_init(&hv, &program, 1);
    d.hypervisor = &hv.ops;
    if (hlsnap_sandbox_create(&g, &d, &s->sb, &s->err)) bad(s, "create");
    if (hlsnap_sandbox_snapshot(s->sb, &snapshot, &s->err)) bad(s, "snapshot");
    for (size_t i = 0; hlsnap_snapshot_region(snapshot, i, &heap); i++)
        if (strcmp(heap.kind, "heap") == 0) s->at = heap.gva;
    hlsnap_snapshot_release(snapshot);
}

/* One more snapshot, of which a page is new: milliseconds of the save. */
static span add(scale *s, hlsnap_result *r) {
    hlsnap_snapshot *snapshot;
    span t;
    s->next++;
    if (hlsnap_sandbox_write(s->sb, s->at, &s->next, 8, &s->err)) bad(s, "write");
    if (hlsnap_sandbox_snapshot(s->sb, &snapshot, &s->err)) bad(s, "snapshot");
    snprintf(s->tag, sizeof s->tag, "v%llu", (unsigned long long)s->next);
    t = now();
    *r = hlsnap_oci_save(s->dir, s->tag, snapshot, NULL, NULL, &s->err);
    t = since(t);
    hlsnap_snapshot_release(snapshot);
    return t;
}

static span op_save(scale *s) {
    hlsnap_result r;
    const span t = add(s, &r);
    if (r) bad(s, "save");
    return t;
}

static span op_load(scale *s) {
    hlsnap_snapshot *snapshot;
    span t = now();
    if (hlsnap_oci_load(s->dir, s->tag, NULL, &snapshot, NULL, &s->err)) bad(s, "load");
    t = since(t);
    hlsnap_snapshot_release(snapshot);
    return t;
}

static bool count(const char *tag, hlsnap_result r, const hlsnap_oci_info *info, void *user) {
    (void)tag, (void)r, (void)info;
    ++*(int *)user;
    return true;
}

static span op_ls(scale *s) {
    span t = now();
    s->seen = 0;
    if (hlsnap_oci_list_info(s->dir, count, &s->seen, &s->err)) bad(s, "ls");
    return since(t);
}

static span op_tag(scale *s) {
    span t = now();
    if (hlsnap_oci_tag(s->dir, "v1", "other", &s->err)) bad(s, "tag");
    return since(t);
}

static span op_gc(scale *s) {
    span t;
    if (hlsnap_oci_untag(s->dir, s->tag, &s->err)) bad(s, "untag");
    t = now();
    if (hlsnap_oci_gc(s->dir, 0, NULL, &s->err)) bad(s, "gc");
    t = since(t);
    snprintf(s->tag, sizeof s->tag, "v%llu", (unsigned long long)--s->next);
    return t;
}

static int order(const void *a, const void *b) {
    const double x = ((const span *)a)->cpu, y = ((const span *)b)->cpu;
    return x < y ? -1 : x > y;
}

static void measure(scale *s, unsigned num) {
    static const struct { const char *name; span (*op)(scale *); } rows[] = {
        {"save", op_save}, {"load", op_load}, {"ls", op_ls}, {"tag", op_tag}, {"gc", op_gc}};
    span t[ROUNDS];
    for (size_t i = 0; i < HLSNAP_COUNT(rows); i++) {
        for (int k = 0; k < ROUNDS; k++) t[k] = rows[i].op(s);
        qsort(t, ROUNDS, sizeof t[0], order);
        printf("scale_%s_%u\tms\t%.2f\t%.2f\n", rows[i].name, num, t[ROUNDS / 2].wall, t[ROUNDS / 2].cpu);
    }
    fflush(stdout);
}

/* ---- >>chain ---- */

typedef struct chain {
    hlsnap_oci_layer last[2][HLSNAP__MAX_LAYERS]; /* layers of the last snapshot, and of the one before */
    int num[2];
    uint64_t seed, written; /* pages of layers that were not there before */
} chain;

static bool chain_layer(const hlsnap_oci_layer *layer, void *user) {
    chain *c = (chain *)user;
    c->last[0][c->num[0]++] = *layer;
    for (int i = 0; i < c->num[1]; i++)
        if (strcmp(c->last[1][i].memory.text, layer->memory.text) == 0) return true;
    c->written += layer->pages;
    return true;
}

static void count_layers(scale *s, chain *c) {
    memcpy(c->last[1], c->last[0], sizeof c->last[0]);
    c->num[1] = c->num[0];
    c->num[0] = 0;
    if (hlsnap_oci_layers(s->dir, s->tag, chain_layer, c, &s->err)) bad(s, "oci_layers");
}

/* One more of the chain: milliseconds of the save. */
static span chain_add(scale *s, chain *c) {
    hlsnap_result r;
    span t;
    for (int i = 0; i < CHAIN_PAGES; i++) {
        c->seed ^= c->seed << 13, c->seed ^= c->seed >> 7, c->seed ^= c->seed << 17;
        if (hlsnap_sandbox_write(s->sb, s->at + (1 + c->seed % CHAIN_ROOM) * 4096, &c->seed, 8, &s->err)) bad(s, "write");
    }
    t = add(s, &r);
    if (r) bad(s, "save in a chain");
    count_layers(s, c);
    return t;
}

static void measure_chain(const char *dir) {
    static const unsigned steps[] = {10, 100, 1000};
    static chain c;
    static scale s;
    static uint64_t page[512];
    hlsnap_result r;
    unsigned n = 0;
    s.dir = dir;
    c.seed = 88172645463325252u;
    begin(&s, CHAIN_ROOM + 1);
    for (uint64_t i = 1; i <= CHAIN_ROOM; i++) { /* no two alike */
        page[0] = i;
        if (hlsnap_sandbox_write(s.sb, s.at + i * 4096, page, sizeof page, &s.err)) bad(&s, "write");
    }
    add(&s, &r);
    if (r) bad(&s, "save of the base");
    count_layers(&s, &c);
    c.written = 0;
    for (size_t i = 0; i < HLSNAP_COUNT(steps); i++) {
        const unsigned before = n;
        span saves = {0, 0}, t[ROUNDS];
        for (; n < steps[i]; n++) {
            const span one = chain_add(&s, &c);
            saves.wall += one.wall;
            saves.cpu += one.cpu;
        }
        for (int k = 0; k < ROUNDS; k++) t[k] = op_load(&s);
        qsort(t, ROUNDS, sizeof t[0], order);
        printf("scale_chain_save_%u\tms\t%.2f\t%.2f\n", n, saves.wall / (n - before), saves.cpu / (n - before));
        printf("scale_chain_load_%u\tms\t%.2f\t%.2f\n", n, t[ROUNDS / 2].wall, t[ROUNDS / 2].cpu);
        printf("scale_chain_layers_%u\tlayers\t%d\n", n, c.num[0]);
        printf("scale_chain_written_%u\tbytes per byte changed\t%.2f\n", n, (double)c.written / (n * (CHAIN_PAGES + 1.0)));
        fflush(stdout);
    }
    hlsnap_sandbox_destroy(s.sb);
}

int main(int argc, char **argv) {
    static const unsigned steps[] = {250, 1000, 4000, 10000};
    static scale s;
    char dir[600];
    if (argc != 2) return fprintf(stderr, "usage: scale dir\n"), 1;
    snprintf(dir, sizeof dir, "%s.chain", argv[1]);
    measure_chain(dir);
    s.dir = argv[1];
    begin(&s, 1);
    for (size_t i = 0; i < HLSNAP_COUNT(steps); i++) {
        hlsnap_result r = HLSNAP_OK;
        while (!r && s.next + ROUNDS < steps[i]) add(&s, &r);
        if (r) {
            printf("# stops at %llu snapshots: %s: %s\n", (unsigned long long)s.next - 1, hlsnap_result_name(r), s.err.msg);
            break;
        }
        measure(&s, steps[i]);
    }
    hlsnap_sandbox_destroy(s.sb);
    return 0;
}

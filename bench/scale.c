/* scale.c - what a layout costs as it grows: save, load, ls, tag, gc at 250, 1,000, 4,000 and 10,000 snapshots.

   cc:  see ./run
   run: ./scale guest_bench dir     dir: where the layout goes

   One tiny guest, of which each snapshot changes a page, so that each is four small files more: two layers, the lower one shared.
   Prints a row per figure and number of snapshots: name, unit, median of 5, tab-separated; a gc removes one snapshot. Where the
   library refuses one more snapshot, it says so, and how many there were, and ends. */
#define HLSNAP_IMPLEMENTATION
#include "hlsnap.h"
#include "hlsnap_kvm.h"
#include "hlsnap_oci.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { ROUNDS = 5 };

typedef struct scale {
    const char *dir;
    hlsnap_sandbox *sb;
    uint64_t at;   /* address of a page that the guest does not use */
    uint64_t next; /* what is written there */
    char tag[32];  /* of the last save */
    int seen;
    hlsnap_error err;
} scale;

static void bad(const scale *s, const char *what) {
    fprintf(stderr, "scale: %s: %s\n", what, s->err.msg);
    exit(1);
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

static hlsnap_result on_tick(hlsnap_call *call, void *user) { return (void)user, hlsnap_call_return(call, hlsnap_u32(0)); }

static void begin(scale *s, const char *guest) {
    static const hlsnap_function tick = {"tick", "u32(u32)", on_tick, NULL};
    hlsnap_guest_desc g = HLSNAP_ZERO;
    hlsnap_sandbox_desc d = HLSNAP_ZERO;
    hlsnap_value out, size = hlsnap_u64(4096);
    d.functions = &tick;
    d.num_functions = 1;
    g.path = guest;
    g.heap_size = 1 << 20;
    d.hypervisor = hlsnap_kvm();
    if (hlsnap_sandbox_create(&g, &d, &s->sb, &s->err)) bad(s, "create");
    if (hlsnap_sandbox_call(s->sb, "room", &size, 1, &out, &s->err)) bad(s, "room");
    s->at = out.as.u64;
}

/* One more snapshot, of which a page is new: milliseconds of the save. */
static double add(scale *s, hlsnap_result *r) {
    hlsnap_snapshot *snapshot;
    double t;
    s->next++;
    if (hlsnap_sandbox_write(s->sb, s->at, &s->next, 8, &s->err)) bad(s, "write");
    if (hlsnap_sandbox_snapshot(s->sb, &snapshot, &s->err)) bad(s, "snapshot");
    snprintf(s->tag, sizeof s->tag, "v%llu", (unsigned long long)s->next);
    t = now();
    *r = hlsnap_oci_save(s->dir, s->tag, snapshot, NULL, NULL, &s->err);
    t = now() - t;
    hlsnap_snapshot_release(snapshot);
    return t;
}

static double op_save(scale *s) {
    hlsnap_result r;
    const double t = add(s, &r);
    if (r) bad(s, "save");
    return t;
}

static double op_load(scale *s) {
    hlsnap_snapshot *snapshot;
    const double t = now();
    if (hlsnap_oci_load(s->dir, s->tag, NULL, &snapshot, NULL, &s->err)) bad(s, "load");
    hlsnap_snapshot_release(snapshot);
    return now() - t;
}

static bool count(const char *tag, hlsnap_result r, const hlsnap_oci_info *info, void *user) {
    (void)tag, (void)r, (void)info;
    ++*(int *)user;
    return true;
}

static double op_ls(scale *s) {
    const double t = now();
    s->seen = 0;
    if (hlsnap_oci_list_info(s->dir, count, &s->seen, &s->err)) bad(s, "ls");
    return now() - t;
}

static double op_tag(scale *s) {
    const double t = now();
    if (hlsnap_oci_tag(s->dir, "v1", "other", &s->err)) bad(s, "tag");
    return now() - t;
}

static double op_gc(scale *s) {
    double t;
    if (hlsnap_oci_untag(s->dir, s->tag, &s->err)) bad(s, "untag");
    t = now();
    if (hlsnap_oci_gc(s->dir, 0, NULL, &s->err)) bad(s, "gc");
    t = now() - t;
    snprintf(s->tag, sizeof s->tag, "v%llu", (unsigned long long)--s->next);
    return t;
}

static int order(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static void measure(scale *s, unsigned num) {
    static const struct { const char *name; double (*op)(scale *); } rows[] = {
        {"save", op_save}, {"load", op_load}, {"ls", op_ls}, {"tag", op_tag}, {"gc", op_gc}};
    double t[ROUNDS];
    for (size_t i = 0; i < HLSNAP_COUNT(rows); i++) {
        for (int k = 0; k < ROUNDS; k++) t[k] = rows[i].op(s);
        qsort(t, ROUNDS, sizeof t[0], order);
        printf("scale_%s_%u\tms\t%.2f\n", rows[i].name, num, t[ROUNDS / 2]);
    }
    fflush(stdout);
}

int main(int argc, char **argv) {
    static const unsigned steps[] = {250, 1000, 4000, 10000};
    static scale s;
    if (argc != 3) return fprintf(stderr, "usage: scale guest_bench dir\n"), 1;
    s.dir = argv[2];
    begin(&s, argv[1]);
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

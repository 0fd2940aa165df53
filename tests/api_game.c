/* api_game.c - public names only: a mod called by handle every frame, a snapshot of each frame, roll-back and resimulation.
   cc: cc -I.. api_game.c -o api_game
   run: ./api_game       prints the lines that compile_matrix.sh expects; exit 77 without a hypervisor */
#define HLSNAP_IMPLEMENTATION
#include "hlsnap.h"
#include "hlsnap_kvm.h"
#include <stdio.h>
#include <stdlib.h>

/* ---- the mod: state in static data, a view for the engine to read straight from guest memory ---- */

typedef struct ball { float x, y, speed; uint32_t frame; } ball;
static ball balls[4] = {{0, 1, 1, 0}, {0, 2, 2, 0}, {0, 3, 3, 0}, {0, 4, 4, 0}};
static hlsnap_result update(hlsnap_call *call, void *user) {
    const uint32_t frame = hlsnap_call_arg(call, 0).as.u32;
    const float dt = hlsnap_call_arg(call, 1).as.f32;
    size_t i;
    (void)user;
    for (i = 0; i < HLSNAP_COUNT(balls); i++) {
        balls[i].x += balls[i].speed * dt;
        balls[i].frame = frame;
    }
    if (frame == 6) *(volatile int *)(uintptr_t)8 = 1;  /* a bug in the mod */
    return HLSNAP_OK;
}
static hlsnap_result push(hlsnap_call *call, void *user) {
    (void)user;
    balls[hlsnap_call_arg(call, 0).as.u32 % 4].speed = hlsnap_call_arg(call, 1).as.f32;
    return HLSNAP_OK;
}
static hlsnap_result view(hlsnap_call *call, void *user) {
    return hlsnap_call_return(call, hlsnap_u64((uint64_t)(uintptr_t)user));
}
static hlsnap_result spin(hlsnap_call *call, void *user) {
    (void)user;
    while (*(volatile uint32_t *)&balls[1].frame < 0xffffffff) *(volatile uint32_t *)&balls[0].frame += 1;
    return hlsnap_call_fail(call, 1, "unreachable");
}
static const hlsnap_function exports[] = {{"update", "void(u32,f32)", update, NULL}, {"push", "void(u32,f32)", push, NULL},
                                          {"view", "u64()", view, balls}, {"spin", "void()", spin, NULL}};
static const hlsnap_module bouncing = {exports, HLSNAP_COUNT(exports), NULL, 0};

/* ---- the engine ---- */

enum { HISTORY = 8 };
typedef struct mod {
    hlsnap_sandbox *sb;
    hlsnap_export update, push, view;
    hlsnap_snapshot *history[HISTORY];
    int faults;
} mod;

static void must(hlsnap_result r, const hlsnap_error *err) {
    if (!r) return;
    printf("%s: %s\n", hlsnap_result_name(r), err->msg);
    exit(1);
}

static hlsnap_result run(mod *m, hlsnap_export target, uint32_t a, float b, hlsnap_error *err) {
    hlsnap_value args[2];
    hlsnap_invocation call = HLSNAP_ZERO;
    args[0] = hlsnap_u32(a);
    args[1] = hlsnap_f32(b);
    call.target = target;
    call.args = args;
    call.num_args = 2;
    return hlsnap_sandbox_invoke(m->sb, &call, 1, NULL, NULL, err);
}

static void frame(mod *m, uint32_t n) {
    hlsnap_snapshot **slot = &m->history[n % HISTORY];
    hlsnap_error err;
    hlsnap_snapshot_release(*slot);
    *slot = NULL;
    must(hlsnap_sandbox_snapshot(m->sb, slot, &err), &err);
    if (!run(m, m->update, n, 0.5f, &err)) return;
    m->faults++;
    must(hlsnap_sandbox_restore(m->sb, *slot, &err), &err);
}

static ball first(mod *m) {
    hlsnap_value at;
    hlsnap_invocation call = HLSNAP_ZERO;
    hlsnap_error err;
    ball seen[4];
    call.target = m->view;
    must(hlsnap_sandbox_invoke(m->sb, &call, 1, &at, NULL, &err), &err);
    must(hlsnap_sandbox_read(m->sb, at.as.u64, seen, sizeof(seen), &err), &err);
    return seen[0];
}

static void show(mod *m, const char *when) {
    const ball b = first(m);
    printf("%s: x %.1f, frame %u, faults %d\n", when, (double)b.x, (unsigned)b.frame, m->faults);
}

static void load(mod *m) {
    hlsnap_guest_desc guest = HLSNAP_ZERO;
    hlsnap_sandbox_desc desc = HLSNAP_ZERO;
    hlsnap_error err;
    guest.self = &bouncing;
    guest.heap_size = 2u << 20;
    desc.hypervisor = hlsnap_kvm();
    desc.pool = NULL;
    desc.timeout_ns = 200000000;
    must(hlsnap_sandbox_create(&guest, &desc, &m->sb, &err), &err);
    must(hlsnap_sandbox_find(m->sb, "update", "void(u32,f32)", &m->update, &err), &err);
    must(hlsnap_sandbox_find(m->sb, "push", NULL, &m->push, &err), &err);
    must(hlsnap_sandbox_find(m->sb, "view", "u64()", &m->view, &err), &err);
    printf("%s\n", hlsnap_result_name(hlsnap_sandbox_find(m->sb, "view", "u32()", &m->view, &err)));
}

int main(void) {
    static mod m;
    hlsnap_error err;
    uint32_t n;
    if (hlsnap_kvm_probe(&err)) return fprintf(stderr, "%s\n", err.msg) < 0 ? 1 : 77;
    load(&m);
    for (n = 1; n <= 10; n++) frame(&m, n);
    show(&m, "played 10, one of them faulted");
    must(hlsnap_sandbox_restore(m.sb, m.history[8 % HISTORY], &err), &err);
    show(&m, "rolled back to 8");
    must(run(&m, m.push, 0, 10.0f, &err), &err);
    for (n = 8; n <= 10; n++) frame(&m, n);
    show(&m, "resimulated with a late push");
    printf("%s\n", hlsnap_result_name(hlsnap_sandbox_call(m.sb, "spin", HLSNAP_NO_ARGS, NULL, &err)));
    must(hlsnap_sandbox_restore(m.sb, m.history[9 % HISTORY], &err), &err);
    show(&m, "after a time limit, at 9");
    hlsnap_sandbox_destroy(m.sb);
    for (n = 0; n < HISTORY; n++) hlsnap_snapshot_release(m.history[n]);
    return 0;
}

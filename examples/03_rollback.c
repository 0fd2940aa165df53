/* 03_rollback.c - a game loop with a mod that the game does not trust. You learn: a time limit per frame, and rolling the
   mod's whole state back, as roll-back netcode does: each frame is first played with a guessed input, rolled back, and
   played again with the real one. Every 50th guess makes the mod loop for ever, every 70th makes it write through NULL.

   cc: cc -std=c11 -O2 -I.. 03_rollback.c -o 03_rollback
   run: ./03_rollback
   prints: 2000 frames, 63 bad guesses rolled back, state right */
#define HLSNAP_IMPLEMENTATION
#include "hlsnap.h"
#include "hlsnap_kvm.h"
#include <stdio.h>
#include <time.h>

enum { FRAMES = 2000, BODIES = 512, HANG = 50, CRASH = 70 };

/* The mod: plain C that could as well run in the game itself, which main() uses to check the result. */
static struct { uint32_t x, y; } world[BODIES];

static uint32_t step(uint32_t frame, uint32_t input) {
    uint32_t i, sum = frame;
    for (i = 0; i < BODIES; i++) {
        world[i].x += world[(i + 1) % BODIES].y * 2654435761u + input;
        world[i].y ^= world[i].x >> 3;
        sum = sum * 31 + world[i].y;
    }
    return sum;
}
static hlsnap_result update(hlsnap_call *call, void *user) {
    const uint32_t frame = hlsnap_call_arg(call, 0).as.u32, input = hlsnap_call_arg(call, 1).as.u32;
    const uint32_t sum = step(frame, input);
    for (; input == HANG;) __asm__ volatile("" ::: "memory");
    if (input == CRASH) *(volatile int *)user = 1;
    return hlsnap_call_return(call, hlsnap_u32(sum));
}
static const hlsnap_function exports[] = {{"update", "u32(u32,u32)", update, NULL}};
static const hlsnap_module mod = {exports, HLSNAP_COUNT(exports), NULL, 0};

/* The game. */
static int fail(hlsnap_result r, const hlsnap_error *err) {
    fprintf(stderr, "%s: %s\n", hlsnap_result_name(r), err->msg);
    return r == HLSNAP_ERR_HYPERVISOR ? 77 : 1;
}

static hlsnap_result play(hlsnap_sandbox *sb, hlsnap_export target, uint32_t frame, uint32_t input, uint64_t limit_ns,
                          uint32_t *sum, hlsnap_error *err) {
    hlsnap_value args[2], out;
    hlsnap_invocation call = HLSNAP_ZERO;
    hlsnap_result r;
    args[0] = hlsnap_u32(frame);
    args[1] = hlsnap_u32(input);
    call.target = target;
    call.args = args;
    call.num_args = HLSNAP_COUNT(args);
    call.timeout_ns = limit_ns;
    r = hlsnap_sandbox_invoke(sb, &call, 1, &out, NULL, err);
    if (!r) *sum = out.as.u32;
    return r;
}

int main(void) {
    hlsnap_guest_desc guest = HLSNAP_ZERO;
    hlsnap_sandbox_desc desc = HLSNAP_ZERO;
    hlsnap_sandbox *sb = NULL;
    hlsnap_snapshot *before = NULL;
    hlsnap_export target;
    hlsnap_error err;
    hlsnap_result r;
    struct timespec t0, t1;
    uint32_t frame, sum = 0, want = 0, bad = 0;
    double seconds;
    guest.self = &mod;
    desc.hypervisor = hlsnap_kvm();
    r = hlsnap_sandbox_create(&guest, &desc, &sb, &err);
    if (!r) r = hlsnap_sandbox_find(sb, "update", "u32(u32,u32)", &target, &err);
    clock_gettime(CLOCK_MONOTONIC, &t0);
    for (frame = 1; frame <= FRAMES && !r; frame++) {
        const uint32_t guess = frame % HANG == 0 ? HANG : frame % CRASH == 0 ? CRASH : 1, real = frame % 7;
        r = hlsnap_sandbox_snapshot(sb, &before, &err);
        if (r) break;
        r = play(sb, target, frame, guess, 1000000, &sum, &err);      /* 1 ms */
        bad += guess != 1 && (r == HLSNAP_ERR_TIMEOUT || r == HLSNAP_ERR_FAULT);
        r = hlsnap_sandbox_restore(sb, before, &err);                 /* the guess never happened */
        if (!r) r = play(sb, target, frame, real, 1000000000, &sum, &err);
        hlsnap_snapshot_release(before);
        want = step(frame, real);                                     /* the same code, here */
    }
    clock_gettime(CLOCK_MONOTONIC, &t1);
    hlsnap_sandbox_destroy(sb);
    if (r) return fail(r, &err);
    seconds = (double)(t1.tv_sec - t0.tv_sec) + (double)(t1.tv_nsec - t0.tv_nsec) / 1e9;
    fprintf(stderr, "%.0f frames per second, two calls, a snapshot and a restore each\n", FRAMES / seconds);
    printf("%d frames, %u bad guesses rolled back, state %s\n", FRAMES, bad, sum == want ? "right" : "WRONG");
    return sum == want ? 0 : 1;
}

/* bench.c - hlsnap beside the limit: the same work in raw ioctls, memcpy and sha256 (limit.h), in turns, in one process.

   cc:  see ./run
   run: ./bench guest_bench dir header [rounds]     dir: where files go; header: hlsnap.h, for include

   Prints comment lines with CPU, kernel and N, then a row per figure: name, unit, value, limit, ratio, p10..p90. value and
   limit are medians over the rounds, ratio is the median of the ratios within a round, p10..p90 are those of them. Each
   round is a block of the limit and then a block of hlsnap; a block's figure is the median of its N samples.

   Not included: exec of a process and its dynamic linking; destroys, except in their own row (they are done, though); the
   guest's init, except in cold_elf, whose limit is a spawn alone. */
#define HLSNAP_IMPLEMENTATION
#include "hlsnap.h"
#include "hlsnap_kvm.h"
#include "hlsnap_oci.h"

#include "limit.h"

#include <sys/utsname.h>

enum { MAX_ROUNDS = 99, BATCH = 64, HOST_CALLS = 256, FAKE_CALLS = 2000 };

typedef struct bench {
    limit_ctx limit;
    const char *guest, *dir, *self; /* the guest's ELF file; where files go; this program */
    char *store;                    /* an OCI layout */
    char *child_bytes;              /* blob size, for the child */
    hlsnap_sandbox_desc desc;
    hlsnap_snapshot *snapshot;      /* after setup */
    hlsnap_sandbox *sb;             /* from it; of the row in progress */
    hlsnap_sandbox *fake;           /* on the fake hypervisor */
    hlsnap_export nop, touch, scatter, hostcalls, compute, first;
    uint32_t pages;                 /* restore_call: N */
    int num_saves;
    double *samples;                /* of the block in progress, when the row takes them itself */
    int num_samples, max_samples;
    double last;                    /* time of the last host call */
    hlsnap_error err;
} bench;

typedef struct row {
    const char *name;
    double (*limit)(bench *, int); /* medians, ns; NULL: there is none */
    double (*own)(bench *, int);
    int samples;
    uint32_t arg;
    int is_ms;
} row;

static double bad(bench *b, const char *what) {
    fprintf(stderr, "bench: %s: %s\n", what, b->err.msg[0] ? b->err.msg : b->limit.error);
    exit(1);
}

/* ---- >>measuring ---- */

/* The median of n runs of an operation that times itself. */
static double block(bench *b, int n, int warmup, double (*op)(bench *)) {
    double *s = limit_begin(&b->limit, n);
    if (!s) bad(b, "samples");
    for (int i = -warmup; i < n; i++) {
        const double ns = op(b);
        if (i >= 0) s[i] = ns;
    }
    return limit_median(s, n);
}

static hlsnap_value invoke(bench *b, hlsnap_sandbox *sb, hlsnap_export target, hlsnap_value arg, size_t num_args) {
    const hlsnap_invocation one = {target, &arg, num_args, 0};
    hlsnap_value out = HLSNAP_ZERO;
    if (hlsnap_sandbox_invoke(sb, &one, 1, &out, NULL, &b->err)) bad(b, "invoke");
    return out;
}

static hlsnap_sandbox *spawn(bench *b, const hlsnap_sandbox_desc *desc, hlsnap_snapshot *s) {
    hlsnap_sandbox *sb;
    if (hlsnap_sandbox_create_from(s, desc, &sb, &b->err)) bad(b, "create_from");
    return sb;
}

static hlsnap_export find(bench *b, const hlsnap_sandbox *sb, const char *name, const char *signature) {
    hlsnap_export e;
    if (hlsnap_sandbox_find(sb, name, signature, &e, &b->err)) bad(b, name);
    return e;
}

/* ---- >>calls ---- */

static double op_call(bench *b) {
    const double t = limit_now();
    const hlsnap_value arg = hlsnap_i32(41);
    const hlsnap_invocation one = {b->nop, &arg, 1, 0};
    hlsnap_value out;
    if (hlsnap_sandbox_invoke(b->sb, &one, 1, &out, NULL, &b->err) || out.as.i32 != 42) bad(b, "nop");
    return limit_now() - t;
}

static double op_call_by_name(bench *b) {
    const double t = limit_now();
    hlsnap_value out;
    if (hlsnap_sandbox_call(b->sb, "nop", HLSNAP_ARGS(hlsnap_i32(41)), &out, &b->err) || out.as.i32 != 42) bad(b, "nop");
    return limit_now() - t;
}

static double op_batch(bench *b) {
    static hlsnap_invocation calls[BATCH];
    static hlsnap_value args[BATCH], outs[BATCH];
    const double t = limit_now();
    size_t done;
    for (int i = 0; i < BATCH; i++) {
        args[i] = hlsnap_i32(i);
        calls[i].target = b->nop;
        calls[i].args = &args[i];
        calls[i].num_args = 1;
    }
    if (hlsnap_sandbox_invoke(b->sb, calls, BATCH, outs, &done, &b->err) || outs[BATCH - 1].as.i32 != BATCH) bad(b, "batch");
    return limit_now() - t;
}

static hlsnap_result on_tick(hlsnap_call *call, void *user) {
    bench *b = (bench *)user;
    const double now = limit_now();
    if (b->samples && b->last > 0 && b->num_samples < b->max_samples) b->samples[b->num_samples++] = now - b->last;
    b->last = now;
    return hlsnap_call_return(call, hlsnap_u32(hlsnap_call_arg(call, 0).as.u32));
}

/* From one host call to the next, many in one guest call. */
static double own_host_call(bench *b, int n) {
    b->samples = limit_begin(&b->limit, n);
    b->max_samples = n;
    b->num_samples = 0;
    b->last = 0;
    invoke(b, b->sb, b->hostcalls, hlsnap_u32((uint32_t)n + 1), 1);
    n = b->num_samples;
    return limit_median(b->samples, n);
}

static double own_call(bench *b, int n) { return block(b, n, 3, op_call); }
static double own_call_by_name(bench *b, int n) { return block(b, n, 3, op_call_by_name); }
static double own_batch(bench *b, int n) { return block(b, n, 3, op_batch); }
static double limit_of_call(bench *b, int n) { return limit_exit(&b->limit, n); }
static double limit_of_host_call(bench *b, int n) { return limit_host_call(&b->limit, n); }

static double op_compute(bench *b) {
    const double t = limit_now();
    if (invoke(b, b->sb, b->compute, hlsnap_u32(0), 0).as.u64 != compute_expected()) bad(b, "compute");
    return limit_now() - t;
}

static double own_compute(bench *b, int n) { return block(b, n, 1, op_compute); }
static double limit_of_compute(bench *b, int n) { return limit_compute(&b->limit, n); }

/* ---- >>restore, snapshot ---- */

static double op_restore_call(bench *b) {
    const double t = limit_now();
    if (hlsnap_sandbox_restore(b->sb, b->snapshot, &b->err)) bad(b, "restore");
    invoke(b, b->sb, b->touch, hlsnap_u32(b->pages), 1);
    return limit_now() - t;
}

static double own_restore_call(bench *b, int n) { return block(b, n, 3, op_restore_call); }
static double limit_of_restore_call(bench *b, int n) { return limit_restore_call(&b->limit, b->pages, n); }

/* The release lets go of nothing yet, since sb resets to it from now on, but the take frees the one before. */
static double op_snapshot(bench *b) {
    hlsnap_snapshot *s;
    double t;
    invoke(b, b->sb, b->scatter, hlsnap_u32(b->pages), 1);
    t = limit_now();
    if (hlsnap_sandbox_snapshot(b->sb, &s, &b->err)) bad(b, "snapshot");
    hlsnap_snapshot_release(s);
    return limit_now() - t;
}

static double own_snapshot(bench *b, int n) { return block(b, n, 3, op_snapshot); }
static double limit_of_snapshot(bench *b, int n) { return limit_snapshot(&b->limit, (int)b->pages, n); }

/* ---- >>spawn ---- */

static void first_call(bench *b, hlsnap_sandbox *sb) {
    if (invoke(b, sb, b->first, hlsnap_u64(7), 1).as.u64 < 7) bad(b, "first");
}

static double op_spawn(bench *b) {
    double t = limit_now();
    hlsnap_sandbox *sb = spawn(b, &b->desc, b->snapshot);
    first_call(b, sb);
    t = limit_now() - t;
    hlsnap_sandbox_destroy(sb);
    return t;
}

static double op_destroy(bench *b) {
    hlsnap_sandbox *sb = spawn(b, &b->desc, b->snapshot);
    double t;
    first_call(b, sb);
    t = limit_now();
    hlsnap_sandbox_destroy(sb);
    return limit_now() - t;
}

static hlsnap_sandbox *create(bench *b, const hlsnap_sandbox_desc *desc, uint64_t heap_size) {
    hlsnap_guest_desc guest = HLSNAP_ZERO;
    hlsnap_sandbox *sb;
    guest.path = b->guest;
    guest.heap_size = heap_size;
    if (hlsnap_sandbox_create(&guest, desc, &sb, &b->err)) bad(b, "create");
    return sb;
}

static double op_cold_elf(bench *b) {
    double t = limit_now();
    hlsnap_sandbox *sb = create(b, &b->desc, LIMIT_MEM_SIZE);
    first_call(b, sb);
    t = limit_now() - t;
    hlsnap_sandbox_destroy(sb);
    return t;
}

static double own_spawn(bench *b, int n) { return block(b, n, 1, op_spawn); }
static double own_destroy(bench *b, int n) { return block(b, n, 1, op_destroy); }
static double own_cold_elf(bench *b, int n) { return block(b, n, 1, op_cold_elf); }
static double limit_of_spawn(bench *b, int n) { return limit_spawn(&b->limit, n); }
static double limit_of_destroy(bench *b, int n) { return limit_destroy(&b->limit, n); }

/* ---- >>oci ---- */

/* Into an empty directory each time, as the limit writes a new file. */
static double op_oci_save(bench *b) {
    char dir[512], command[600];
    double t;
    snprintf(dir, sizeof dir, "%s%d", b->store, b->num_saves++);
    t = limit_now();
    if (hlsnap_oci_save(dir, "v1", b->snapshot, NULL, NULL, &b->err)) bad(b, "oci_save");
    t = limit_now() - t;
    snprintf(command, sizeof command, "rm -rf '%s'", dir);
    if (system(command) != 0) bad(b, command);
    return t;
}

static double own_oci_save(bench *b, int n) { return block(b, n, 1, op_oci_save); }
static double limit_of_oci_save(bench *b, int n) { return limit_oci_save(&b->limit, n); }

/* In the child, from its main on. */
static double child_hlsnap(bench *b) {
    const double t = limit_now();
    hlsnap_snapshot *s;
    hlsnap_sandbox *sb;
    if (hlsnap_oci_load(b->store, "v1", NULL, &s, NULL, &b->err)) bad(b, "oci_load");
    sb = spawn(b, &b->desc, s);
    b->first = find(b, sb, "first", NULL);
    first_call(b, sb);
    return limit_now() - t;
}

/* A fresh process: this program again, which prints its figure. */
static double run_child(bench *b, char *what) {
    extern char **environ;
    char line[64] = "", *argv[] = {(char *)(uintptr_t)b->self, what, (char *)(uintptr_t)b->dir, b->child_bytes, NULL};
    posix_spawn_file_actions_t actions;
    int p[2], status = 1;
    pid_t pid;
    if (pipe2(p, O_CLOEXEC) != 0) bad(b, "pipe");
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, p[1], 1);
    if (posix_spawn(&pid, b->self, &actions, NULL, argv, environ) != 0) bad(b, b->self);
    posix_spawn_file_actions_destroy(&actions);
    close(p[1]);
    if (read(p[0], line, sizeof line - 1) < 0 || waitpid(pid, &status, 0) != pid || status != 0) bad(b, what);
    close(p[0]);
    return strtod(line, NULL);
}

static double op_load(bench *b) {
    static char what[] = "--load";
    return run_child(b, what);
}

static double op_limit_load(bench *b) {
    static char what[] = "--limit-load";
    return run_child(b, what);
}

static double own_load(bench *b, int n) { return block(b, n, 1, op_load); }
static double limit_of_load(bench *b, int n) { return block(b, n, 1, op_limit_load); }

/* ---- >>include ---- */

static double own_include(bench *b, int n) { return limit_include_header(&b->limit, n); }
static double limit_of_include(bench *b, int n) { return limit_include(&b->limit, n); }

/* ---- >>fake: a hypervisor that does the guest's part of a call and nothing else ---- */

struct hlsnap__shell {
    uint8_t *mem;              /* host address of guest memory */
    hlsnap_abi_mailbox *mailbox;
    uint64_t size;
};

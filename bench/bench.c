/* bench.c - hlsnap beside the limit: the same work in raw ioctls, memcpy and sha256 (limit.h), in turns, in one process.

   cc:  see ./run
   run: ./bench guest_bench dir header [rounds [row]]     dir: where files go; header: hlsnap.h, for include_ms

   Prints comment lines with CPU, kernel and N, then a row per figure: name, unit, value, limit, ratio, p10..p90; "-" where
   there is no limit. cpu_per_call is CPU time of a call on a hypervisor that only writes the result. value and
   limit are medians over the rounds, ratio is the median of the ratios within a round, p10..p90 are those of them. Each
   round is a block of the limit and then a block of hlsnap; a block's figure is the median of its N samples.

   Smaller ratios are better, always: where value and limit are speeds (GB/s), the ratio is limit / value, the ratio of the times.

   restore_delta is restore_call_16 where the snapshot was loaded as a base and a delta of 256 scattered pages;
   restore_small_delta, of 16; restore_scattered, where it has 1,000 pages with a page of zeros between them. restore_built is the
   same in the sandbox that took the snapshot, behind ten others; limit: in one that was made from it. snapshot_large is
   snapshot_16 of 1,664 pages where 256 MiB had been changed before. pool_N is an acquire, a call that changes N pages, and the
   release, which puts the sandbox back; pool_call_N is without the release, what who asked waits for, pool_call_guest_N the same of
   a sandbox that stood at another snapshot of the guest; limit of all: as of restore_call_N. pool_guest is pool_16 of such a
   sandbox, pool_other, of one that stood at another guest's, pool_cold, of a new one, whose end is in it; limit of these:
   restore_call_16 of one's own sandbox.

   first_call is the first call behind a start, which changes 256 pages, where another sandbox was the first and said which
   (guest_desc.prefault), first_call_off where none did; limit of both: the same call behind a restore. first_start is the start
   with its first call; limit: where nothing was learned.

   map_16 gives a READ map of 2 MiB of a file in the page cache, calls a function that reads a word in each of 16 pages of it,
   and takes it away; map_shared is the same with SHARED memory. map_restore_16 is restore_call_16 in a sandbox that has such a
   READ map; limit: without. map_private_16 restores and calls a function that writes in 16 pages of a PRIVATE map of a file of
   64 MiB, map_sealed_16 of a sealed memfd; limit: as of restore_call_16. map_start is spawn of a snapshot that demands a READ map
   of 2 MiB, through a call that reads in 16 pages of it; limit: spawn's own.

   message_N gives N MiB to a call and gets as many back, message_host_N gives and gets them in a host function; limit: two memcpys
   of N MiB. Processor time, since so much memory is sensitive to neighbours; the guest looks at a word or two. That the process's
   memory stays as it was after the first block is checked, and said in a comment. A row for which there is not memory enough is
   left out, as a comment says.

   image_N is a restore and a call that maps an image of N pages and writes to 16 pages all over it; limit: the same guest from the
   same snapshot copies the N pages by memcpy instead. A comment has both without the restore, which puts back what was copied.

   Rows of files, all of them in the page cache:
     oci_save       into an empty directory; limit: one sha256, one write, one fsync
     delta_save     256 pages more, under a new tag, where a base of 256 MiB lies that this process loaded. Limit: what the format
                    asks for, see limit_delta_save. The first one, which hashes the base, is said in a comment; so is what it takes
     chain_bytes    bytes of memory layers written for each byte changed, in 50 saves with 8 random pages changed before each,
                    over a base of 256 MiB. Limit: 1. What all files of the layout take, a comment says
     chain_save     the next save of such a chain; no limit, but delta_save is the same over the base alone, with more pages
     chain_load     a load of it, private, beside load_private's limit for the base's file: what so many layers cost
     verify_gbps    chunk digests of 64 MiB in memory on one thread; limit: what openssl speed does (EVP, messages of 64 KiB).
                    limit_check has openssl's own figure beside that
     load_mapped    64 MiB, verified, guard NONE; limit: open, read, chunk digests of the same file
     load_private   64 MiB, verified, guard PRIVATE; limit: that and a copy into a sealed memfd
     load_2_threads load_private with desc.threads = 2, beside the same limit, which has one
     load_cached    1 MiB over a base of 100 MiB, PRIVATE, where the base is shared by a cache; limit: as of load_private, for the
                    file of that MiB
     tenants_memory bytes of memory that eight such snapshots take that were loaded by a cache, for each that one of them takes
                    alone. Limit: 1
   The limits of the loads hash 16 chunks at a time where the CPU has AVX-512, twice as fast as EVP, and their digests are checked
   against the layout's. Digests of one message, as in the saves, are EVP's.

   Not included: exec of a process and its dynamic linking; destroys, except in their own row (they are done, though); the
   guest's init, except in cold_elf, whose limit is a spawn alone. */
#define HLSNAP_IMPLEMENTATION
#include "hlsnap.h"
#include "hlsnap_kvm.h"
#include "hlsnap_oci.h"

#include "limit.h"
#include "machine.h"

#include <dirent.h>

enum { MAX_ROUNDS = 99, MAX_MORE = 6, BATCH = 64, FAKE_CALLS = 2000 };
enum { TEXT_SIZE = 64 << 20, DELTA_PAGES = 256, BASE_PAGES = 65536, LOAD_PAGES = 16384, CHAIN = 50, CHAIN_PAGES = 8 };
enum { TENANTS = 8, TENANTS_PAGES = 25600 };

typedef enum unit { NS, MS, GBPS, PARTS } unit; /* GBPS: of TEXT_SIZE bytes; PARTS: the ns are millionths */

typedef struct bench {
    limit_ctx limit;
    const char *guest, *dir, *self; /* the guest's ELF file; where files go; this program */
    char *store;                    /* an OCI layout */
    char *big;                      /* another, with v1 of BASE_PAGES or LOAD_PAGES */
    uint8_t *text;                  /* TEXT_SIZE bytes without zeros */
    char *child_bytes;              /* blob size, for the child */
    hlsnap_sandbox_desc desc;
    hlsnap_snapshot *snapshot;      /* after setup */
    hlsnap_snapshot *from;          /* that, or the row's own */
    hlsnap_sandbox *sb;             /* from it; of the row in progress */
    hlsnap_sandbox *fake;           /* on the fake hypervisor */
    hlsnap_export nop, touch, scatter, hostcalls, compute, first, fake_nop, find_map, read_map, write_map, image_use;
    uint32_t pages;                 /* restore_call: N */
    hlsnap_oci_desc oci;            /* of the loads */
    int num_saves;
    uint64_t room, room_pages;      /* what make_big filled */
    uint64_t chain_pages;           /* of the memory layers that the saves of a chain wrote */
    hlsnap_oci_layer layers[2][128]; /* of the last save, and of the one before it */
    int num_layers[2];
    uint64_t seed;
    hlsnap_sandbox *chain_sb;       /* that the chain is of */
    hlsnap_sandbox *built;          /* what made its snapshots itself */
    hlsnap_prefault prefault;       /* of guests that are loaded */
    hlsnap_snapshot *unlearned;     /* as from, where nobody has learned */
    hlsnap_oci_cache *cache;
    hlsnap_snapshot *base;          /* that tenants are over, by that cache */
    hlsnap_pool *pool;
    double served;                  /* from the last acquire to the end of its call */
    hlsnap_snapshot *others[2];     /* for pools: a second one of the guest, another guest's */
    hlsnap_export touch_of[2];      /* its touch */
    bool turn;
    hlsnap_map map;                 /* of the row in progress */
    char *map_path, *map_sealed;    /* a file of TEXT_SIZE bytes; a sealed memfd of the same */
    uint8_t *map_data;              /* what they begin with: LIMIT_MAP_SIZE bytes */
    uint64_t map_at, map_sum;       /* the map's address in the guest; of the words that are read */
    hlsnap_snapshot *mapped;        /* that demands the map */
    uint8_t *message[2];            /* the rows of messages have these bytes twice, */
    size_t message_size;            /* so many, */
    uint64_t message_at;            /* and in the guest; */
    uint64_t resident[2];           /* bytes of this process after the first block, and after the last one */
    bool left_out;                  /* the row in progress cannot be measured here */
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
    unit unit;
    int more; /* times as many rounds: short blocks where the machine's state changes within a long one */
    void (*begin)(bench *); /* may set from, and what the row's functions need; NULL: nothing */
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
    const hlsnap_invocation one = {target, &arg, num_args, 0, 0, NULL};
    hlsnap_value out = HLSNAP_ZERO;
    if (hlsnap_sandbox_invoke(sb, &one, 1, &out, NULL, &b->err)) bad(b, "invoke");
    return out;
}

static hlsnap_sandbox *spawn(bench *b, const hlsnap_sandbox_desc *desc, hlsnap_snapshot *s) {
    hlsnap_sandbox *sb;
    if (hlsnap_sandbox_create_from(s, desc, &sb, &b->err)) bad(b, "create_from");
    return sb;
}

static hlsnap_snapshot *take(bench *b, hlsnap_sandbox *sb) {
    hlsnap_snapshot *s;
    if (hlsnap_sandbox_snapshot(sb, &s, &b->err)) bad(b, "snapshot");
    return s;
}

static hlsnap_export find(bench *b, const hlsnap_sandbox *sb, const char *name, const char *signature) {
    hlsnap_export e;
    if (hlsnap_sandbox_find(sb, name, signature, &e, &b->err)) bad(b, name);
    return e;
}

static hlsnap_sandbox *create(bench *b, const hlsnap_sandbox_desc *desc, uint64_t heap_size) {
    hlsnap_guest_desc guest = HLSNAP_ZERO;
    hlsnap_sandbox *sb;
    guest.path = b->guest;
    guest.heap_size = heap_size;
    guest.prefault = b->prefault;
    if (hlsnap_sandbox_create(&guest, desc, &sb, &b->err)) bad(b, "create");
    return sb;
}

/* Handles of the guest of a sandbox. */
static void find_all(bench *b, const hlsnap_sandbox *sb) {
    b->nop = find(b, sb, "nop", "i32(i32)");
    b->touch = find(b, sb, "touch", "void(u32)");
    b->scatter = find(b, sb, "scatter", "void(u32)");
    b->hostcalls = find(b, sb, "hostcalls", "u32(u32)");
    b->compute = find(b, sb, "compute", "u64()");
    b->first = find(b, sb, "first", "u64(u64)");
    b->find_map = find(b, sb, "find_map", "u64()");
    b->read_map = find(b, sb, "read_map", "u64(u64,u32)");
    b->write_map = find(b, sb, "write_map", "void(u64,u32)");
    b->image_use = find(b, sb, "image_use", "u64(u32,bool)");
}

/* ---- >>calls ---- */

static double op_call(bench *b) {
    const double t = limit_now();
    const hlsnap_value arg = hlsnap_i32(41);
    const hlsnap_invocation one = {b->nop, &arg, 1, 0, 0, NULL};
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
    if (hlsnap_sandbox_restore(b->sb, b->from, &b->err)) bad(b, "restore");
    invoke(b, b->sb, b->touch, hlsnap_u32(b->pages), 1);
    return limit_now() - t;
}

static double op_retire_call(bench *b) {
    const double t = limit_now();
    hlsnap_sandbox_retire(b->sb);
    if (hlsnap_sandbox_restore(b->sb, b->from, &b->err)) bad(b, "restore");
    invoke(b, b->sb, b->touch, hlsnap_u32(b->pages), 1);
    return limit_now() - t;
}

static double own_retire_call(bench *b, int n) { return block(b, n, 3, op_retire_call); }
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

/* ---- >>first: first calls of many pages ---- */

static double call_pages(bench *b, hlsnap_sandbox *sb) {
    const double t = limit_now();
    invoke(b, sb, b->touch, hlsnap_u32(b->pages), 1);
    return limit_now() - t;
}

static double op_first_call(bench *b) {
    hlsnap_sandbox *sb = spawn(b, &b->desc, b->from);
    const double ns = call_pages(b, sb);
    hlsnap_sandbox_destroy(sb);
    return ns;
}

static double op_later_call(bench *b) {
    if (hlsnap_sandbox_restore(b->sb, b->from, &b->err)) bad(b, "restore");
    return call_pages(b, b->sb);
}

static double start_of(bench *b, hlsnap_snapshot *s) {
    const double t = limit_now();
    hlsnap_sandbox *sb = spawn(b, &b->desc, s);
    double ns;
    call_pages(b, sb);
    ns = limit_now() - t;
    hlsnap_sandbox_destroy(sb);
    return ns;
}

static double op_first_start(bench *b) { return start_of(b, b->from); }
static double op_unlearned_start(bench *b) { return start_of(b, b->unlearned); }

static double own_first_call(bench *b, int n) { return block(b, n, 1, op_first_call); }
static double own_first_start(bench *b, int n) { return block(b, n, 1, op_first_start); }
static double limit_of_first_call(bench *b, int n) { return block(b, n, 3, op_later_call); }
static double limit_of_first_start(bench *b, int n) { return block(b, n, 1, op_unlearned_start); }

/* One sandbox has made its first calls. */
static void begin_first(bench *b) {
    hlsnap_sandbox *sb;
    b->unlearned = b->snapshot;
    b->prefault = HLSNAP_PREFAULT_LEARN;
    sb = create(b, &b->desc, LIMIT_MEM_SIZE);
    b->prefault = HLSNAP_PREFAULT_OFF;
    find_all(b, sb);
    invoke(b, sb, find(b, sb, "setup", "void()"), hlsnap_u32(0), 0);
    b->from = take(b, sb);
    hlsnap_sandbox_destroy(sb);
    op_first_call(b);
}

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
    if (pipe(p) != 0) bad(b, "pipe");
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

/* ---- >>large: rows with a layout of their own ---- */

static void remove_all(bench *b, const char *dir) {
    char command[600];
    snprintf(command, sizeof command, "rm -rf '%s'", dir);
    if (system(command) != 0) bad(b, command);
}

/* Bytes of the index and all blobs; path: the largest blob's. */
static uint64_t layout_bytes(bench *b, const char *layout, char path[600]) {
    char dir[512], name[600];
    uint64_t sum = 0;
    off_t most = -1;
    struct stat st;
    struct dirent *e;
    DIR *d;
    snprintf(name, sizeof name, "%s/index.json", layout);
    if (stat(name, &st) == 0) sum = (uint64_t)st.st_size;
    snprintf(dir, sizeof dir, "%s/blobs/sha256", layout);
    d = opendir(dir);
    if (!d) bad(b, dir);
    while ((e = readdir(d)) != NULL) {
        snprintf(name, sizeof name, "%s/%.80s", dir, e->d_name);
        if (stat(name, &st) != 0 || !S_ISREG(st.st_mode)) continue;
        sum += (uint64_t)st.st_size;
        if (st.st_size > most) {
            most = st.st_size;
            strcpy(path, name);
        }
    }
    closedir(d);
    return sum;
}

static void make_text(bench *b) {
    if (b->text) return;
    b->text = (uint8_t *)malloc(TEXT_SIZE);
    if (!b->text) bad(b, "malloc");
    limit_pattern(b->text, TEXT_SIZE);
}

static void end_chain(bench *b) {
    hlsnap_sandbox_destroy(b->chain_sb);
    b->chain_sb = NULL;
}

/* A new layout b->big with v1, a snapshot of about that many stored pages. */
static hlsnap_sandbox *make_big_sandbox(bench *b, uint32_t pages) {
    hlsnap_sandbox *sb = create(b, &b->desc, (uint64_t)pages * 4096 + (2 << 20));
    hlsnap_snapshot_info info;
    uint64_t at, left, n;
    make_text(b);
    invoke(b, sb, find(b, sb, "setup", "void()"), hlsnap_u32(0), 0);
    hlsnap_snapshot_get_info(b->snapshot, &info);
    left = (pages - info.stored_pages) * 4096;
    at = invoke(b, sb, find(b, sb, "room", "u64(u64)"), hlsnap_u64(left), 1).as.u64;
    b->room = at;
    b->room_pages = left / 4096;
    for (; left; left -= n, at += n) {
        n = left < TEXT_SIZE ? left : TEXT_SIZE;
        if (hlsnap_sandbox_write(sb, at, b->text, n, &b->err)) bad(b, "write");
    }
    return sb;
}

static void make_big(bench *b, uint32_t pages) {
    hlsnap_sandbox *sb = make_big_sandbox(b, pages);
    hlsnap_snapshot *s = take(b, sb);
    end_chain(b);
    remove_all(b, b->big);
    hlsnap_sandbox_destroy(sb);
    if (hlsnap_oci_save(b->big, "v1", s, NULL, NULL, &b->err)) bad(b, "oci_save of the base");
    hlsnap_snapshot_release(s);
}

static hlsnap_snapshot *load(bench *b, const char *layout, const char *tag) {
    hlsnap_snapshot *s;
    if (hlsnap_oci_load(layout, tag, &b->oci, &s, NULL, &b->err)) bad(b, "oci_load");
    return s;
}

/* ---- >>delta ---- */

/* A snapshot that differs from the base in DELTA_PAGES scattered pages and a few more, in other bytes each time. */
static hlsnap_snapshot *delta(bench *b, hlsnap_sandbox *sb) {
    if (hlsnap_sandbox_restore(sb, b->from, &b->err)) bad(b, "restore");
    invoke(b, sb, b->first, hlsnap_u64((uint64_t)++b->num_saves << 8), 1);
    invoke(b, sb, b->scatter, hlsnap_u32(DELTA_PAGES), 1);
    return take(b, sb);
}

static double save_delta(bench *b, hlsnap_snapshot *s) {
    const double t = limit_now();
    if (hlsnap_oci_save(b->big, "delta", s, NULL, NULL, &b->err)) bad(b, "oci_save of a delta");
    hlsnap_snapshot_release(s);
    return limit_now() - t;
}

static void unsave_delta(bench *b) {
    if (hlsnap_oci_untag(b->big, "delta", &b->err) || hlsnap_oci_gc(b->big, 0, NULL, &b->err)) bad(b, "gc");
}

/* The base, loaded, and a first delta to see what it takes. */
static void begin_delta(bench *b) {
    hlsnap_oci_info info;
    hlsnap_sandbox *sb;
    char path[600];
    uint64_t before, after;
    double ns;
    make_big(b, BASE_PAGES);
    b->from = load(b, b->big, "v1");
    before = layout_bytes(b, b->big, path);
    sb = spawn(b, &b->desc, b->from);
    find_all(b, sb);
    ns = save_delta(b, delta(b, sb));
    after = layout_bytes(b, b->big, path);
    if (hlsnap_oci_get_info(b->big, "delta", &info, &b->err)) bad(b, "get_info");
    printf("# delta_save: the first, which hashes the base: %.1f ms; new on disk: %llu bytes; layers: %u\n", ns / 1e6,
           (unsigned long long)(after - before), info.layers);
    unsave_delta(b);
    hlsnap_sandbox_destroy(sb);
    b->limit.delta_size = (after - before) & ~(uint64_t)4095; /* the layer, and less than three pages of metadata */
}

static double op_delta_save(bench *b) {
    const double ns = save_delta(b, delta(b, b->sb));
    unsave_delta(b);
    return ns;
}

static double own_delta_save(bench *b, int n) { return block(b, n, 1, op_delta_save); }
static double limit_of_delta_save(bench *b, int n) { return limit_delta_save(&b->limit, n); }

/* ---- >>built: sandboxes that made their snapshots themselves ---- */

static void end_built(bench *b) {
    hlsnap_sandbox_destroy(b->built);
    b->built = NULL;
}

static double own_restore_built(bench *b, int n) {
    hlsnap_sandbox *made = b->sb;
    double ns;
    b->sb = b->built;
    ns = block(b, n, 3, op_restore_call);
    b->sb = made;
    return ns;
}

static void begin_restore_built(bench *b) {
    end_built(b);
    b->built = create(b, &b->desc, LIMIT_MEM_SIZE);
    invoke(b, b->built, find(b, b->built, "setup", "void()"), hlsnap_u32(0), 0);
    b->from = take(b, b->built);
    find_all(b, b->built);
    (void)own_restore_built(b, 10);
}

/* Every other one of 2,000 pages. */
static void begin_restore_scattered(bench *b) {
    hlsnap_sandbox *sb = spawn(b, &b->desc, b->snapshot);
    const uint64_t at = invoke(b, sb, find(b, sb, "room", "u64(u64)"), hlsnap_u64(2000 * 4096), 1).as.u64;
    for (uint64_t i = 0; i < 1000; i++)
        if (hlsnap_sandbox_write(sb, at + i * 8192, &at, 8, &b->err)) bad(b, "write");
    b->from = take(b, sb);
    hlsnap_sandbox_destroy(sb);
}

static double op_snapshot_large(bench *b) {
    hlsnap_snapshot *s;
    double t;
    b->seed++;
    for (uint64_t i = 0; i < b->pages; i++)
        if (hlsnap_sandbox_write(b->built, b->room + i * 4096, &b->seed, 8, &b->err)) bad(b, "write");
    t = limit_now();
    s = take(b, b->built);
    t = limit_now() - t;
    hlsnap_snapshot_release(s);
    return t;
}

static double own_snapshot_large(bench *b, int n) { return block(b, n, 4, op_snapshot_large); }

static void begin_snapshot_large(bench *b) {
    end_built(b);
    b->built = make_big_sandbox(b, BASE_PAGES);
}

/* ---- >>pool ---- */

static void end_pool(bench *b) {
    hlsnap_pool_destroy(b->pool);
    for (int i = 0; i < 2; i++) hlsnap_snapshot_release(b->others[i]);
    b->others[0] = b->others[1] = NULL;
    b->pool = NULL;
}

static void begin_pool(bench *b) {
    hlsnap_pool_desc desc = HLSNAP_ZERO;
    hlsnap_sandbox *sb;
    end_pool(b);
    desc.sandbox = &b->desc;
    desc.max_sandboxes = 1;
    if (hlsnap_pool_create(&desc, &b->pool, &b->err)) bad(b, "pool_create");
    sb = spawn(b, &b->desc, b->snapshot);
    invoke(b, sb, b->touch, hlsnap_u32(1), 1);
    b->others[0] = take(b, sb);
    b->touch_of[0] = b->touch;
    hlsnap_sandbox_destroy(sb);
    sb = create(b, &b->desc, LIMIT_MEM_SIZE / 2);
    invoke(b, sb, find(b, sb, "setup", "void()"), hlsnap_u32(0), 0);
    b->others[1] = take(b, sb);
    b->touch_of[1] = find(b, sb, "touch", "void(u32)");
    hlsnap_sandbox_destroy(sb);
}

static double pool_call(bench *b, hlsnap_snapshot *s, hlsnap_export touch) {
    const double t = limit_now();
    hlsnap_sandbox *sb;
    if (hlsnap_pool_acquire(b->pool, s, &sb, &b->err)) bad(b, "pool_acquire");
    invoke(b, sb, touch, hlsnap_u32(b->pages), 1);
    b->served = limit_now() - t;
    hlsnap_pool_release(b->pool, sb);
    return limit_now() - t;
}

static double op_pool(bench *b) { return pool_call(b, b->snapshot, b->touch); }
static double op_pool_call(bench *b) { return pool_call(b, b->snapshot, b->touch), b->served; }
static double op_pool_guest(bench *b) { return b->turn = !b->turn, pool_call(b, b->turn ? b->others[0] : b->snapshot, b->touch); }
static double op_pool_call_guest(bench *b) { return op_pool_guest(b), b->served; }
static double op_pool_other(bench *b) {
    b->turn = !b->turn;
    return pool_call(b, b->turn ? b->others[1] : b->snapshot, b->turn ? b->touch_of[1] : b->touch);
}
static double op_pool_cold(bench *b) {
    const double t = limit_now();
    hlsnap_pool_trim(b->pool, NULL);
    return limit_now() - t + pool_call(b, b->snapshot, b->touch);
}

static double own_pool(bench *b, int n) { return block(b, n, 3, op_pool); }
static double own_pool_call(bench *b, int n) { return block(b, n, 3, op_pool_call); }
static double own_pool_guest(bench *b, int n) { return block(b, n, 3, op_pool_guest); }
static double own_pool_call_guest(bench *b, int n) { return block(b, n, 3, op_pool_call_guest); }
static double own_pool_other(bench *b, int n) { return block(b, n, 3, op_pool_other); }
static double own_pool_cold(bench *b, int n) { return block(b, n, 1, op_pool_cold); }

/* ---- >>message ---- */

static double cpu_now(void) {
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

/* Bytes of memory that a line of a file of /proc says; 0: it does not. */
static uint64_t proc_bytes(const char *path, const char *name) {
    char line[128];
    unsigned long long kib = 0;
    FILE *f = fopen(path, "r");
    while (f && fgets(line, sizeof line, f))
        if (strncmp(line, name, strlen(name)) == 0) sscanf(line + strlen(name), " %llu", &kib);
    if (f) fclose(f);
    return (uint64_t)kib << 10;
}

static void end_message(bench *b) {
    if (b->resident[0])
        printf("# messages of %zu MiB: %llu MiB resident after the first block, %llu after the last\n", b->message_size >> 20,
               (unsigned long long)b->resident[0] >> 20, (unsigned long long)b->resident[1] >> 20);
    for (int i = 0; i < 2; i++) {
        free(b->message[i]);
        b->message[i] = NULL;
        b->resident[i] = 0;
    }
}

/* A sandbox with a heap that has room for so many of them. */
static void begin_messages(bench *b, uint64_t in_heap) {
    const uint64_t size = (uint64_t)b->pages << 20, need = (in_heap + 4) * size, have = proc_bytes("/proc/meminfo", "MemAvailable:");
    end_built(b);
    end_message(b);
    b->left_out = have < need;
    if (b->left_out) {
        printf("# messages of %u MiB are left out: they need %llu MiB, of which %llu are free\n", b->pages,
               (unsigned long long)need >> 20, (unsigned long long)have >> 20);
        return;
    }
    b->message_size = size;
    for (int i = 0; i < 2; i++)
        if (!(b->message[i] = (uint8_t *)malloc(size))) bad(b, "malloc");
    limit_pattern(b->message[0], size);
    memcpy(b->message[1], b->message[0], size);
    b->built = create(b, &b->desc, in_heap * size + (2 << 20));
}

static void begin_message(bench *b) { begin_messages(b, 1); }

static void begin_message_host(bench *b) {
    begin_messages(b, 2);
    if (b->left_out) return;
    b->message_at = invoke(b, b->built, find(b, b->built, "room", "u64(u64)"), hlsnap_u64(b->message_size), 1).as.u64;
    if (hlsnap_sandbox_write(b->built, b->message_at, b->message[0], b->message_size, &b->err)) bad(b, "write");
}

static double op_message(bench *b) {
    const double t = cpu_now();
    const hlsnap_value arg = hlsnap_bytes(b->message[0], b->message_size);
    hlsnap_value out;
    if (hlsnap_sandbox_call(b->built, "echo", &arg, 1, &out, &b->err) || out.size != b->message_size) bad(b, "echo");
    if (memcmp(out.bytes, b->message[0], 4096) != 0 || out.bytes[out.size - 1] != b->message[0][out.size - 1]) bad(b, "other bytes");
    return cpu_now() - t;
}

/* What the guest gives, it gets. */
static hlsnap_result on_swap(hlsnap_call *call, void *user) {
    const bench *b = (const bench *)user;
    const hlsnap_value v = hlsnap_call_arg(call, 0);
    if (v.size != b->message_size || memcmp(v.bytes, b->message[0], 4096) != 0) return HLSNAP_ERR_ARG;
    return hlsnap_call_return(call, hlsnap_bytes(b->message[1], b->message_size));
}

static double op_message_host(bench *b) {
    const double t = cpu_now();
    uint64_t first, last;
    hlsnap_value out;
    memcpy(&first, b->message[0], 8);
    memcpy(&last, b->message[0] + b->message_size - 8, 8);
    if (hlsnap_sandbox_call(b->built, "swap", HLSNAP_ARGS(hlsnap_u64(b->message_at), hlsnap_u64(b->message_size)), &out, &b->err) ||
        out.as.u64 != first + last) bad(b, "swap");
    return cpu_now() - t;
}

static double message_block(bench *b, int n, double (*op)(bench *)) {
    const double ns = block(b, n, 1, op);
    b->resident[1] = proc_bytes("/proc/self/status", "VmRSS:");
    if (!b->resident[0]) b->resident[0] = b->resident[1];
    if (b->resident[1] > b->resident[0] + b->message_size / 8 + (1 << 20)) bad(b, "messages: memory is not flat");
    return ns;
}

static double own_message(bench *b, int n) { return message_block(b, n, op_message); }
static double own_message_host(bench *b, int n) { return message_block(b, n, op_message_host); }

static double op_two_copies(bench *b) {
    const double t = cpu_now();
    for (int i = 0; i < 2; i++) {
        memcpy(b->message[!i], b->message[i], b->message_size);
        __asm__ volatile("" ::: "memory");
    }
    return cpu_now() - t;
}

static double limit_of_message(bench *b, int n) { return block(b, n, 1, op_two_copies); }

/* ---- >>map ---- */

static void make_map_files(bench *b) {
    char path[64];
    int fd;
    if (b->map_path) return;
    make_text(b);
    b->map_path = limit_join(b->dir, "map");
    b->map_data = (uint8_t *)aligned_alloc(LIMIT_PAGE, LIMIT_MAP_SIZE);
    if (!b->map_data || limit_write_file(&b->limit, b->map_path, b->text, TEXT_SIZE) != 0) bad(b, "the file of a map");
    memcpy(b->map_data, b->text, LIMIT_MAP_SIZE);
    fd = limit_memfd(&b->limit, "map");
    if (fd < 0 || limit_write_all(&b->limit, fd, b->text, TEXT_SIZE) != 0 || limit_seal(&b->limit, fd) != 0) bad(b, "memfd");
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    b->map_sealed = strdup(path);
}

static void end_map(bench *b) {
    hlsnap_snapshot_release(b->mapped);
    free(b->map_sealed);
    free(b->map_path);
    free(b->map_data);
}

static void give_map(bench *b, hlsnap_sandbox *sb) {
    if (hlsnap_sandbox_map(sb, &b->map, &b->err)) bad(b, "map");
}

/* The row's map, of a file or, without one, of memory; and a sandbox that has it. */
static void begin_map(bench *b, hlsnap_map_mode mode, char *const *path, uint64_t size) {
    make_map_files(b);
    end_built(b);
    memset(&b->map, 0, sizeof b->map);
    b->map.name = "data";
    b->map.mode = mode;
    b->map.path = path ? *path : NULL;
    b->map.data = path ? NULL : b->map_data;
    b->map.size = size;
    b->built = spawn(b, &b->desc, b->snapshot);
    give_map(b, b->built);
    find_all(b, b->built);
    b->map_at = invoke(b, b->built, b->find_map, hlsnap_u32(0), 0).as.u64;
    b->limit.map_path = b->map.path;
    b->limit.map_data = b->map_data;
    b->limit.map_pages = b->pages;
    b->map_sum = limit_map_sum(&b->limit);
}

static void begin_map_read(bench *b) { begin_map(b, HLSNAP_MAP_READ, &b->map_path, LIMIT_MAP_SIZE); }
static void begin_map_shared(bench *b) { begin_map(b, HLSNAP_MAP_SHARED, NULL, LIMIT_MAP_SIZE); }
static void begin_map_private(bench *b) { begin_map(b, HLSNAP_MAP_PRIVATE, &b->map_path, 0); }
static void begin_map_sealed(bench *b) { begin_map(b, HLSNAP_MAP_PRIVATE, &b->map_sealed, 0); }

static hlsnap_value invoke_map(bench *b, hlsnap_sandbox *sb, hlsnap_export target) {
    const hlsnap_value args[] = {hlsnap_u64(b->map_at), hlsnap_u32(b->pages)};
    const hlsnap_invocation one = {target, args, HLSNAP_COUNT(args), 0, 0, NULL};
    hlsnap_value out = HLSNAP_ZERO;
    if (hlsnap_sandbox_invoke(sb, &one, 1, &out, NULL, &b->err)) bad(b, "invoke with a map");
    return out;
}

static void read_map(bench *b, hlsnap_sandbox *sb) {
    if (invoke_map(b, sb, b->read_map).as.u64 != b->map_sum) bad(b, "read_map");
}

static double op_map(bench *b) {
    const double t = limit_now();
    give_map(b, b->sb);
    read_map(b, b->sb);
    if (hlsnap_sandbox_unmap(b->sb, "data", &b->err)) bad(b, "unmap");
    return limit_now() - t;
}

static double own_map(bench *b, int n) { return block(b, n, 3, op_map); }
static double limit_of_map(bench *b, int n) { return limit_map(&b->limit, n); }

static double op_map_private(bench *b) {
    const double t = limit_now();
    if (hlsnap_sandbox_restore(b->built, b->from, &b->err)) bad(b, "restore");
    invoke_map(b, b->built, b->write_map);
    return limit_now() - t;
}

static double own_map_private(bench *b, int n) { return block(b, n, 3, op_map_private); }

static void begin_map_start(bench *b) {
    begin_map_read(b);
    hlsnap_snapshot_release(b->mapped);
    b->mapped = take(b, b->built);
}

static double op_map_start(bench *b) {
    hlsnap_sandbox_desc desc = b->desc;
    double t = limit_now();
    hlsnap_sandbox *sb;
    desc.maps = &b->map;
    desc.num_maps = 1;
    sb = spawn(b, &desc, b->mapped);
    read_map(b, sb);
    t = limit_now() - t;
    hlsnap_sandbox_destroy(sb);
    return t;
}

static double own_map_start(bench *b, int n) { return block(b, n, 1, op_map_start); }

/* ---- >>image ---- */

static double image_call_ns; /* of the last block, without the restores */

static double image_op(bench *b, bool copied) {
    const hlsnap_value args[] = {hlsnap_u32(b->pages), hlsnap_bool(copied)};
    const hlsnap_invocation one = {b->image_use, args, HLSNAP_COUNT(args), 0, 0, NULL};
    hlsnap_sandbox *sb = copied ? b->sb : b->built;
    hlsnap_value out = HLSNAP_ZERO;
    const double t = limit_now();
    double called;
    if (hlsnap_sandbox_restore(sb, b->from, &b->err)) bad(b, "restore");
    called = limit_now();
    if (hlsnap_sandbox_invoke(sb, &one, 1, &out, NULL, &b->err) || !out.as.u64) bad(b, "image_use");
    image_call_ns += limit_now() - called;
    return limit_now() - t;
}
static double op_image_copied(bench *b) { return image_op(b, true); }
static double op_image_mapped(bench *b) { return image_op(b, false); }

static void begin_image(bench *b) {
    hlsnap_sandbox *sb = create(b, &b->desc, b->pages * 4 * 4096ull + (4u << 20));
    end_built(b);
    invoke(b, sb, find(b, sb, "image_setup", "void(u32)"), hlsnap_u32(b->pages), 1);
    b->from = take(b, sb);
    hlsnap_sandbox_destroy(sb);
    b->built = spawn(b, &b->desc, b->from);
    find_all(b, b->built);
    for (int i = 0; i < 20; i++) (void)op_image_mapped(b);
    image_call_ns = 0;
    for (int i = 0; i < 10; i++) (void)op_image_mapped(b);
    printf("# image_%u: the call alone, mapped, takes %.0f us", b->pages, image_call_ns / 10e3);
    b->sb = spawn(b, &b->desc, b->from);
    for (int i = 0; i < 20; i++) (void)op_image_copied(b);
    image_call_ns = 0;
    for (int i = 0; i < 10; i++) (void)op_image_copied(b);
    printf(", copied %.0f\n", image_call_ns / 10e3);
    hlsnap_sandbox_destroy(b->sb);
}

static double own_image(bench *b, int n) { return block(b, n, 2, op_image_mapped); }
static double limit_of_image(bench *b, int n) { return block(b, n, 2, op_image_copied); }

/* ---- >>chain ---- */

static bool chain_layer(const hlsnap_oci_layer *layer, void *user) {
    bench *b = (bench *)user;
    b->layers[0][b->num_layers[0]++] = *layer;
    for (int i = 0; i < b->num_layers[1]; i++)
        if (strcmp(b->layers[1][i].memory.text, layer->memory.text) == 0) return true;
    b->chain_pages += layer->pages;
    return true;
}

/* Counts the pages of layers that the snapshot listed before did not have. */
static void count_layers(bench *b, const char *tag) {
    memcpy(b->layers[1], b->layers[0], sizeof b->layers[0]);
    b->num_layers[1] = b->num_layers[0];
    b->num_layers[0] = 0;
    if (hlsnap_oci_layers(b->big, tag, chain_layer, b, &b->err)) bad(b, "oci_layers");
}

/* One word in each of CHAIN_PAGES random pages, and a save. */
static double op_chain_save(bench *b) {
    hlsnap_snapshot *s;
    double t;
    for (int i = 0; i < CHAIN_PAGES; i++) {
        b->seed = compute_xorshift(b->seed, 1);
        if (hlsnap_sandbox_write(b->chain_sb, b->room + b->seed % b->room_pages * 4096, &b->seed, 8, &b->err)) bad(b, "write");
    }
    s = take(b, b->chain_sb);
    t = limit_now();
    if (hlsnap_oci_save(b->big, "chain", s, NULL, NULL, &b->err)) bad(b, "oci_save in a chain");
    t = limit_now() - t;
    hlsnap_snapshot_release(s);
    return t;
}

static void make_chain(bench *b) {
    char path[600];
    hlsnap_snapshot *base;
    uint64_t before;
    make_big(b, BASE_PAGES);
    base = load(b, b->big, "v1");
    b->chain_sb = spawn(b, &b->desc, base);
    hlsnap_snapshot_release(base);
    b->seed = 88172645463325252u;
    count_layers(b, "v1");
    b->chain_pages = 0;
    before = layout_bytes(b, b->big, path);
    for (int i = 0; i < CHAIN; i++) {
        op_chain_save(b);
        count_layers(b, "chain");
    }
    printf("# chain: %d saves write %.2f bytes of all kinds for each that changed; layers: %d\n", CHAIN,
           (double)(layout_bytes(b, b->big, path) - before) / (CHAIN * CHAIN_PAGES * 4096.0), b->num_layers[0]);
    if (limit_set_load(&b->limit, path) != 0) bad(b, path);
}

/* One chain does for the rows that come one after the other. */
static void begin_chain(bench *b) {
    if (!b->chain_sb) make_chain(b);
    b->from = load(b, b->big, "chain");
}

static double own_chain_bytes(bench *b, int n) { return (void)n, (double)b->chain_pages / (CHAIN * CHAIN_PAGES) * 1e6; }
static double limit_of_one(bench *b, int n) { return (void)b, (void)n, 1e6; }
static double own_chain_save(bench *b, int n) { return block(b, n, 1, op_chain_save); }

static double op_chain_load(bench *b) {
    double t = limit_now();
    hlsnap_snapshot *s = load(b, b->big, "chain");
    t = limit_now() - t;
    hlsnap_snapshot_release(s);
    return t;
}

static double own_chain_load(bench *b, int n) { return block(b, n, 1, op_chain_load); }

/* restore_call of a snapshot that was loaded as two layers, the upper one of n scattered pages. What is dirtied lies in both. */
static void begin_restore_layers(bench *b, uint32_t n) {
    hlsnap_oci_info info;
    hlsnap_sandbox *sb = spawn(b, &b->desc, b->snapshot);
    hlsnap_snapshot *s;
    invoke(b, sb, b->scatter, hlsnap_u32(n), 1);
    s = take(b, sb);
    if (hlsnap_oci_save(b->store, "delta", s, NULL, NULL, &b->err)) bad(b, "oci_save of a delta");
    if (hlsnap_oci_get_info(b->store, "delta", &info, &b->err) || info.layers != 2) bad(b, "two layers");
    hlsnap_snapshot_release(s);
    hlsnap_sandbox_destroy(sb);
    b->from = load(b, b->store, "delta");
}

static void begin_restore_delta(bench *b) { begin_restore_layers(b, DELTA_PAGES); }
static void begin_restore_small_delta(bench *b) { begin_restore_layers(b, b->pages); }

/* ---- >>verify ---- */

static void begin_verify(bench *b) {
    make_text(b);
    b->limit.text = b->text;
    b->limit.text_size = TEXT_SIZE;
}

static double op_verify(bench *b) {
    static uint8_t sums[TEXT_SIZE / HLSNAP__OCI_CHUNK * 32];
    const hlsnap__sha256_ways *ways = hlsnap__sha256_pick(hlsnap__cpu_features());
    const double t = limit_now();
    for (size_t at = 0; at < TEXT_SIZE; at += HLSNAP__OCI_BATCH) /* as a load does */
        hlsnap__sha256_chunks(ways, b->text + at, HLSNAP__OCI_BATCH, HLSNAP__OCI_CHUNK, sums + at / HLSNAP__OCI_CHUNK * 32);
    return limit_now() - t;
}

static double own_verify(bench *b, int n) { return block(b, n, 1, op_verify); }
static double limit_of_verify(bench *b, int n) { return limit_verify(&b->limit, n); }

/* ---- >>load ---- */

/* Limit and hlsnap read the same file, and their digests must be the same: the chunk list is named by its digest. */
static void begin_load(bench *b) {
    char path[600], name[600];
    uint8_t digest[32];
    int n;
    make_big(b, LOAD_PAGES);
    layout_bytes(b, b->big, path);
    if (limit_set_load(&b->limit, path) != 0 || limit_load_mapped(&b->limit, 1) < 0) bad(b, path);
    if (limit_sha256(&b->limit, b->limit.sums, (b->limit.load_size + LIMIT_CHUNK - 1) / LIMIT_CHUNK * 32, digest) != 0)
        bad(b, "sha256");
    n = snprintf(name, sizeof name, "%s/blobs/sha256/", b->big);
    for (int i = 0; i < 32; i++) n += snprintf(name + n, sizeof name - (size_t)n, "%02x", digest[i]);
    if (access(name, R_OK) != 0) bad(b, "the limit's digests are not those of the chunk list");
}

static void begin_load_mapped(bench *b) {
    begin_load(b);
    b->oci.guard = HLSNAP_OCI_GUARD_NONE;
}

static void begin_load_threads(bench *b) {
    begin_load(b);
    b->oci.threads = 2;
}

static double op_big_load(bench *b) {
    double t = limit_now();
    hlsnap_snapshot *s = load(b, b->big, "v1");
    t = limit_now() - t;
    hlsnap_snapshot_release(s);
    return t;
}

static double own_big_load(bench *b, int n) { return block(b, n, 1, op_big_load); }
static double limit_of_load_mapped(bench *b, int n) { return limit_load_mapped(&b->limit, n); }
static double limit_of_load_private(bench *b, int n) { return limit_load_private(&b->limit, n); }

/* ---- >>cache ---- */

static void end_tenants(bench *b) {
    hlsnap_snapshot_release(b->base);
    hlsnap_oci_cache_destroy(b->cache);
    b->base = NULL;
    b->cache = NULL;
}

static bool last_layer(const hlsnap_oci_layer *layer, void *user) {
    bench *b = (bench *)user;
    b->layers[0][0] = *layer;
    return true;
}

/* t0, t1, ..: DELTA_PAGES each over v1, which a cache shares as long as b->base is there. One layout does for the rows that come
   one after the other. */
static void begin_tenants(bench *b) {
    char tag[16], path[700];
    hlsnap_sandbox *sb;
    if (b->cache) return;
    make_big(b, TENANTS_PAGES);
    if (hlsnap_oci_cache_create(0, &b->cache, &b->err)) bad(b, "cache_create");
    b->oci.cache = b->cache;
    b->base = b->from = load(b, b->big, "v1");
    sb = spawn(b, &b->desc, b->base);
    find_all(b, sb);
    for (int i = 0; i < TENANTS; i++) {
        hlsnap_snapshot *s = delta(b, sb);
        snprintf(tag, sizeof tag, "t%d", i);
        if (hlsnap_oci_save(b->big, tag, s, NULL, NULL, &b->err)) bad(b, "oci_save of a tenant");
        hlsnap_snapshot_release(s);
    }
    hlsnap_sandbox_destroy(sb);
    b->from = b->snapshot;
    if (hlsnap_oci_layers(b->big, "t0", last_layer, b, &b->err)) bad(b, "oci_layers");
    snprintf(path, sizeof path, "%s/blobs/sha256/%s", b->big, b->layers[0][0].memory.text + 7);
    if (b->layers[0][0].pages > 2 * DELTA_PAGES || limit_set_load(&b->limit, path) != 0) bad(b, path);
}

static double op_load_cached(bench *b) {
    double t = limit_now();
    hlsnap_snapshot *s;
    b->oci.cache = b->cache;
    s = load(b, b->big, "t0");
    t = limit_now() - t;
    hlsnap_snapshot_release(s);
    return t;
}

static double own_load_cached(bench *b, int n) { return block(b, n, 1, op_load_cached); }

/* Bytes of all memory layers in memory. */
static double layers_memory(bench *b) {
    struct stat st, seen[256];
    int num = 0, i;
    double sum = 0;
    DIR *d = opendir("/proc/self/fd");
    struct dirent *e;
    if (!d) bad(b, "/proc/self/fd");
    while ((e = readdir(d)) != NULL) {
        char path[300], to[100] = "";
        snprintf(path, sizeof path, "/proc/self/fd/%.255s", e->d_name);
        if (readlink(path, to, sizeof to - 1) < 0 || !strstr(to, "memfd:hlsnap") || stat(path, &st) != 0) continue;
        for (i = 0; i < num && seen[i].st_ino != st.st_ino; i++) {}
        if (i < num) continue;
        if (num == 256) bad(b, "too many layers");
        seen[num++] = st;
        sum += (double)st.st_blocks * 512;
    }
    closedir(d);
    return sum;
}

static double own_tenants_memory(bench *b, int n) {
    hlsnap_snapshot *s[TENANTS], *alone;
    double before, one;
    char tag[16];
    (void)n;
    hlsnap_snapshot_release(b->base);
    b->base = NULL;
    before = layers_memory(b);
    b->oci.cache = NULL;
    alone = load(b, b->big, "t0");
    one = layers_memory(b) - before;
    hlsnap_snapshot_release(alone);
    b->oci.cache = b->cache;
    for (int i = 0; i < TENANTS; i++) {
        snprintf(tag, sizeof tag, "t%d", i);
        s[i] = load(b, b->big, tag);
    }
    before = layers_memory(b) - before;
    for (int i = 0; i < TENANTS; i++) hlsnap_snapshot_release(s[i]);
    return before / one * 1e6;
}

/* ---- >>include ---- */

static double own_include(bench *b, int n) { return limit_include_header(&b->limit, n); }
static double limit_of_include(bench *b, int n) { return limit_include(&b->limit, n); }

/* ---- >>fake: a hypervisor that does the guest's part of a call and nothing else ---- */

typedef struct fake_shell {
    uint8_t *mem;              /* host address of guest memory */
    uint64_t size;
    hlsnap_abi_mailbox *mailbox;
} fake_shell;

static const hlsnap_function fake_exports[] = {{"nop", "i32(i32)", NULL, NULL}};
static const hlsnap_module fake_module = {fake_exports, HLSNAP_COUNT(fake_exports), NULL, 0};

static hlsnap_result fake_create(const hlsnap_hypervisor *hv, int signal, uint32_t cpu, hlsnap__shell **out, hlsnap_error *err) {
    (void)hv;
    (void)signal;
    (void)cpu;
    (void)err;
    *out = (hlsnap__shell *)calloc(1, sizeof(fake_shell));
    return *out ? HLSNAP_OK : HLSNAP_ERR_MEMORY;
}

static void fake_destroy(hlsnap__shell *shell, bool forked) {
    (void)forked;
    free(shell);
}

static hlsnap_result fake_map(hlsnap__shell *shell, const hlsnap__slot *slot, hlsnap_error *err) {
    fake_shell *f = (fake_shell *)shell;
    (void)err;
    f->mem = (uint8_t *)slot->hva;
    f->size = slot->size;
    f->mailbox = NULL;
    return HLSNAP_OK;
}

static hlsnap_result fake_begin(hlsnap__shell *shell, const uint64_t *deadlines, bool cancellable, hlsnap_error *err) {
    (void)shell;
    (void)deadlines;
    (void)cancellable;
    (void)err;
    return HLSNAP_OK;
}

static void fake_nothing(hlsnap__shell *shell) { (void)shell; }

/* It is told guest addresses only, so it finds the mailbox by its magic, once. */
static void fake_run(hlsnap__shell *shell, const hlsnap__entry *entry, hlsnap__exit *out) {
    fake_shell *f = (fake_shell *)shell;
    uint64_t magic = 0;
    (void)entry;
    out->kind = HLSNAP__EXIT_RETURN;
    for (uint64_t at = 0; at < f->size && !f->mailbox; at += 4096) {
        memcpy(&magic, f->mem + at, sizeof magic);
        if (magic == HLSNAP_ABI_MAGIC) f->mailbox = (hlsnap_abi_mailbox *)(void *)(f->mem + at);
    }
    if (f->mailbox->op == HLSNAP_ABI_OP_INIT) {
        hlsnap__rt_list(f->mailbox, &fake_module);
        f->mailbox->guest_abi = HLSNAP_ABI_VERSION;
    } else {
        const hlsnap_value v = hlsnap_i32(42);
        hlsnap__message_write((uint8_t *)f->mailbox + f->mailbox->out_offset, f->mailbox->out_size, 0, HLSNAP_ABI_STATUS_OK, &v, 1);
        f->mailbox->num_done = 1;
    }
}

static const hlsnap_hypervisor fake = {"fake",   0,            fake_create, fake_destroy, fake_map, fake_begin, fake_nothing,
                                       fake_run, fake_nothing, NULL,        NULL,         NULL,     NULL};

static double op_cpu_per_call(bench *b) {
    const double t = cpu_now();
    for (int i = 0; i < FAKE_CALLS; i++) {
        const hlsnap_value arg = hlsnap_i32(41);
        const hlsnap_invocation one = {b->fake_nop, &arg, 1, 0, 0, NULL};
        hlsnap_value out;
        if (hlsnap_sandbox_invoke(b->fake, &one, 1, &out, NULL, &b->err) || out.as.i32 != 42) bad(b, "fake nop");
    }
    return (cpu_now() - t) / FAKE_CALLS;
}

static double own_cpu_per_call(bench *b, int n) { return block(b, n, 1, op_cpu_per_call); }

/* ---- >>main ---- */

static const row rows[] = {
    {"call", limit_of_call, own_call, 200, 0, NS, 1, NULL},
    {"call_by_name", limit_of_call, own_call_by_name, 200, 0, NS, 1, NULL},
    {"host_call", limit_of_host_call, own_host_call, 200, 0, NS, 1, NULL},
    {"batch_64", limit_of_call, own_batch, 200, 0, NS, 1, NULL},
    {"restore_call_0", limit_of_restore_call, own_restore_call, 200, 0, NS, 1, NULL},
    {"restore_call_1", limit_of_restore_call, own_restore_call, 200, 1, NS, 1, NULL},
    {"restore_call_16", limit_of_restore_call, own_restore_call, 200, 16, NS, 1, NULL},
    {"restore_call_64", limit_of_restore_call, own_restore_call, 200, 64, NS, 1, NULL},
    {"restore_call_256", limit_of_restore_call, own_restore_call, 100, 256, NS, 1, NULL},
    {"restore_call_1024", limit_of_restore_call, own_restore_call, 50, 1024, NS, 1, NULL},
    {"retire_call_1", NULL, own_retire_call, 50, 1, NS, 1, NULL},
    {"retire_call_16", NULL, own_retire_call, 50, 16, NS, 1, NULL},
    {"restore_delta", limit_of_restore_call, own_restore_call, 200, 16, NS, 1, begin_restore_delta},
    {"restore_small_delta", limit_of_restore_call, own_restore_call, 200, 16, NS, 1, begin_restore_small_delta},
    {"restore_scattered", limit_of_restore_call, own_restore_call, 200, 16, NS, 1, begin_restore_scattered},
    {"restore_built", own_restore_call, own_restore_built, 200, 16, NS, 1, begin_restore_built},
    {"pool_16", limit_of_restore_call, own_pool, 200, 16, NS, 1, begin_pool},
    {"pool_64", limit_of_restore_call, own_pool, 200, 64, NS, 1, begin_pool},
    {"pool_256", limit_of_restore_call, own_pool, 100, 256, NS, 1, begin_pool},
    {"pool_1024", limit_of_restore_call, own_pool, 50, 1024, NS, 1, begin_pool},
    {"pool_call_64", limit_of_restore_call, own_pool_call, 200, 64, NS, 1, begin_pool},
    {"pool_call_256", limit_of_restore_call, own_pool_call, 100, 256, NS, 1, begin_pool},
    {"pool_call_1024", limit_of_restore_call, own_pool_call, 50, 1024, NS, 1, begin_pool},
    {"pool_call_guest_64", limit_of_restore_call, own_pool_call_guest, 200, 64, NS, 1, begin_pool},
    {"pool_call_guest_256", limit_of_restore_call, own_pool_call_guest, 100, 256, NS, 1, begin_pool},
    {"pool_call_guest_1024", limit_of_restore_call, own_pool_call_guest, 50, 1024, NS, 1, begin_pool},
    {"pool_guest", own_restore_call, own_pool_guest, 50, 16, NS, 1, begin_pool},
    {"pool_other", own_restore_call, own_pool_other, 20, 16, NS, 1, begin_pool},
    {"pool_cold", own_restore_call, own_pool_cold, 10, 16, NS, 1, begin_pool},
    {"map_16", limit_of_map, own_map, 20, 16, NS, 1, begin_map_read},
    {"map_shared", limit_of_map, own_map, 20, 16, NS, 1, begin_map_shared},
    {"map_restore_16", own_restore_call, own_restore_built, 200, 16, NS, 1, begin_map_read},
    {"map_private_16", limit_of_restore_call, own_map_private, 200, 16, NS, 1, begin_map_private},
    {"map_sealed_16", limit_of_restore_call, own_map_private, 200, 16, NS, 1, begin_map_sealed},
    {"map_start", own_spawn, own_map_start, 4, 16, NS, 6, begin_map_start},
    {"message_1", limit_of_message, own_message, 50, 1, NS, 1, begin_message},
    {"message_64", limit_of_message, own_message, 3, 64, NS, 1, begin_message},
    {"message_512", limit_of_message, own_message, 1, 512, NS, 1, begin_message},
    {"message_host_1", limit_of_message, own_message_host, 50, 1, NS, 1, begin_message_host},
    {"message_host_64", limit_of_message, own_message_host, 3, 64, NS, 1, begin_message_host},
    {"image_16", limit_of_image, own_image, 50, 16, NS, 1, begin_image},
    {"image_256", limit_of_image, own_image, 20, 256, NS, 1, begin_image},
    {"image_4096", limit_of_image, own_image, 5, 4096, NS, 1, begin_image},
    {"snapshot_16", limit_of_snapshot, own_snapshot, 100, 16, NS, 1, NULL},
    {"snapshot_large", limit_of_snapshot, own_snapshot_large, 10, 1664, NS, 1, begin_snapshot_large},
    {"spawn", limit_of_spawn, own_spawn, 4, 0, NS, 6, NULL},
    {"first_call", limit_of_first_call, own_first_call, 4, 256, NS, 6, begin_first},
    {"first_call_off", limit_of_first_call, own_first_call, 4, 256, NS, 3, NULL},
    {"first_start", limit_of_first_start, own_first_start, 4, 256, NS, 3, begin_first},
    {"destroy", limit_of_destroy, own_destroy, 4, 0, NS, 5, NULL},
    {"cold_elf", limit_of_spawn, own_cold_elf, 3, 0, NS, 3, NULL},
    {"oci_save", limit_of_oci_save, own_oci_save, 3, 0, NS, 1, NULL},
    {"delta_save", limit_of_delta_save, own_delta_save, 3, 0, NS, 2, begin_delta},
    {"chain_bytes", limit_of_one, own_chain_bytes, 1, 0, PARTS, 1, begin_chain},
    {"chain_save", NULL, own_chain_save, 3, 0, NS, 1, begin_chain},
    {"chain_load", limit_of_load_private, own_chain_load, 3, 0, NS, 1, begin_chain},
    {"verify_gbps", limit_of_verify, own_verify, 3, 0, GBPS, 1, begin_verify},
    {"load_mapped", limit_of_load_mapped, own_big_load, 3, 0, NS, 2, begin_load_mapped},
    {"load_private", limit_of_load_private, own_big_load, 3, 0, NS, 2, begin_load},
    {"load_2_threads", limit_of_load_private, own_big_load, 3, 0, NS, 2, begin_load_threads},
    {"load_cached", limit_of_load_private, own_load_cached, 10, 0, NS, 2, begin_tenants},
    {"tenants_memory", limit_of_one, own_tenants_memory, 1, 0, PARTS, 1, begin_tenants},
    {"oci_load_first_call", limit_of_load, own_load, 3, 0, NS, 1, NULL},
    {"compute", limit_of_compute, own_compute, 3, 0, NS, 1, NULL},
    {"include_ms", limit_of_include, own_include, 3, 0, MS, 1, NULL},
    {"cpu_per_call", NULL, own_cpu_per_call, 10, 0, NS, 1, NULL},
};

static double at_percent(const double *sorted, int n, int percent) { return sorted[(n - 1) * percent / 100]; }

/* A block's time in the row's unit. */
static double in_unit(const row *r, double ns) {
    return r->unit == GBPS ? TEXT_SIZE / ns : r->unit == MS || r->unit == PARTS ? ns / 1e6 : ns;
}

static void print_row(const row *r, double *own, double *limit, double *ratio, int n) {
    static const char *const units[] = {"ns", "ms", "GB/s", "1"};
    static const int digits[] = {0, 1, 2, 2};
    printf("%s\t%s\t%.*f\t", r->name, units[r->unit], digits[r->unit], in_unit(r, limit_median(own, n)));
    if (r->limit) {
        const double of_limit = in_unit(r, limit_median(limit, n)), median = limit_median(ratio, n);
        printf("%.*f\t%.3f\t%.3f..%.3f\n", digits[r->unit], of_limit, median, at_percent(ratio, n, 10), at_percent(ratio, n, 90));
    } else {
        printf("-\t-\t-\n");
    }
    fflush(stdout);
}

static void run_row(bench *b, const row *r, int rounds) {
    static double own[MAX_ROUNDS * MAX_MORE], limit[MAX_ROUNDS * MAX_MORE], ratio[MAX_ROUNDS * MAX_MORE];
    b->pages = r->arg;
    b->from = b->snapshot;
    memset(&b->oci, 0, sizeof b->oci);
    b->left_out = false;
    if (r->begin) r->begin(b);
    if (b->left_out) return;
    b->sb = spawn(b, &b->desc, b->from);
    find_all(b, b->sb);
    rounds *= r->more;
    for (int i = 0; i < rounds; i++) {
        limit[i] = r->limit ? r->limit(b, r->samples) : 0;
        if (limit[i] < 0) bad(b, r->name); /* before own clears what it says */
        own[i] = r->own(b, r->samples);
        if (own[i] < 0) bad(b, r->name);
        ratio[i] = r->limit ? own[i] / limit[i] : 0;
    }
    hlsnap_sandbox_destroy(b->sb);
    if (b->from != b->snapshot) hlsnap_snapshot_release(b->from);
    print_row(r, own, limit, ratio, rounds);
}

static void print_header(int rounds) {
    print_machine();
    printf("# N (rounds of a block of each side x samples in a block):");
    for (size_t i = 0; i < HLSNAP_COUNT(rows); i++) printf(" %s %dx%d", rows[i].name, rounds * rows[i].more, rows[i].samples);
    printf("\n# name\tunit\tvalue\tlimit\tratio\tp10..p90 of ratio\n");
}

/* The snapshot that all rows start from, on disk too, and the sandbox on the fake. */
static void prepare(bench *b) {
    hlsnap_sandbox_desc on_fake = HLSNAP_ZERO;
    hlsnap_sandbox *sb = create(b, &b->desc, LIMIT_MEM_SIZE);
    hlsnap_snapshot_info info;
    find_all(b, sb);
    invoke(b, sb, find(b, sb, "setup", "void()"), hlsnap_u32(0), 0);
    b->snapshot = take(b, sb);
    hlsnap_sandbox_destroy(sb);
    if (hlsnap_oci_save(b->store, "v1", b->snapshot, NULL, NULL, &b->err)) bad(b, "oci_save");
    hlsnap_snapshot_get_info(b->snapshot, &info);
    b->child_bytes = (char *)malloc(32);
    snprintf(b->child_bytes, 32, "%llu", (unsigned long long)info.stored_pages * 4096);
    if (limit_set_bytes(&b->limit, info.stored_pages * 4096) != 0) bad(b, "limit_set_bytes");
    printf("# stored by the snapshot: %llu pages\n", (unsigned long long)info.stored_pages);
    on_fake.hypervisor = &fake;
    b->fake = create(b, &on_fake, 0);
    b->fake_nop = find(b, b->fake, "nop", "i32(i32)");
}

static int child(bench *b, const char *what, const char *bytes) {
    const int own = strcmp(what, "--load") == 0;
    const double ns = own ? child_hlsnap(b) : limit_load_child(&b->limit, b->dir, strtoul(bytes, NULL, 10));
    if (ns < 0) bad(b, what);
    printf("%.0f\n", ns);
    return 0;
}

int main(int argc, char **argv) {
    static bench b;
    static const char *only;
    const hlsnap_function functions[] = {{"tick", "u32(u32)", on_tick, &b}, {"swap", "bytes(bytes)", on_swap, &b}};
    const int is_child = argc > 3 && argv[1][0] == '-';
    int rounds = argc > 4 ? atoi(argv[4]) : 21;
    b.desc.hypervisor = hlsnap_kvm();
    b.desc.functions = functions;
    b.desc.num_functions = HLSNAP_COUNT(functions);
    if (argc < 4) return fprintf(stderr, "usage: bench guest_bench dir header [rounds [row]]\n"), 1;
    only = argc > 5 ? argv[5] : NULL;
    b.self = "/proc/self/exe";
    b.dir = argv[2];
    b.store = limit_join(argv[2], "store");
    b.big = limit_join(argv[2], "big");
    if (is_child) return child(&b, argv[1], argv[3]);
    b.guest = argv[1];
    if (limit_open(&b.limit, b.dir) != 0) {
        fprintf(stderr, "bench: %s\n", b.limit.error);
        return access("/dev/kvm", R_OK | W_OK) != 0 ? 77 : 1;
    }
    b.limit.header = argv[3];
    rounds = rounds < 1 ? 1 : rounds > MAX_ROUNDS ? MAX_ROUNDS : rounds;
    print_header(rounds);
    prepare(&b);
    for (size_t i = 0; i < HLSNAP_COUNT(rows); i++)
        if (!only || strcmp(rows[i].name, only) == 0) run_row(&b, &rows[i], rounds);
    end_chain(&b);
    end_built(&b);
    end_pool(&b);
    end_map(&b);
    end_message(&b);
    end_tenants(&b);
    hlsnap_sandbox_destroy(b.fake);
    hlsnap_snapshot_release(b.snapshot);
    free(b.text);
    limit_close(&b.limit);
    return 0;
}

/* programs.c - Linux programs as guests, beside a freestanding guest and beside the same programs as processes, in one run.

   cc:  see ./run
   run: ./programs dir [rounds]     dir: guests free.elf, musl.elf, glibc.elf, and what tests/programs.sh builds

   Prints comment lines with CPU and kernel, then a row per figure: name, unit, value, limit, ratio, p10..p90 of the ratio,
   tab-separated; "-" where there is nothing to compare with. Each round is a block of the one and then a block of the other; a
   block's figure is the median of its samples; value and limit are medians over the rounds, ratio is the median of the ratios
   within a round. Smaller ratios are better.

     syscall_LIBC        cycles of the time stamp counter of a getppid in a guest; limit: of one in this process
     call_LIBC           a call; limit: of the freestanding guest, as in the next two
     restore_call_LIBC   restore and the first call; wanted: 1.10
     spawn_call_LIBC     create_from and the first call, without the destroy; wanted: 1.15 with musl, 1.25 with glibc
     stored_LIBC         pages in the snapshot after init
     start_PROGRAM       create of an unmodified binary, call of main, destroy; limit: posix_spawn of the same file, and its end */
#define HLSNAP_IMPLEMENTATION
#include "hlsnap.h"
#include "hlsnap_kvm.h"
#include "machine.h"

#include <spawn.h>
#include <stdio.h>
#include <sys/wait.h>

enum { MAX_ROUNDS = 99, MAX_SAMPLES = 200, SYSCALLS = 1000 };

typedef struct guest {
    const char *name;
    hlsnap_snapshot *snapshot;
    hlsnap_sandbox *sb;
    hlsnap_export nop, syscalls;
} guest;

typedef struct program {
    const char *name, *file, *args[8], *env[2], *archive;
    uint64_t heap;
} program;

static const program programs[] = {
    {"lua", "lua_program", {"lua", "-e", "print(1)"}, {NULL}, NULL, 64u << 20},
    {"sqlite3", "sqlite_program", {"sqlite3", ":memory:", "select 1"}, {NULL}, NULL, 64u << 20},
    {"python3", "python", {"python3", "-S", "-B", "-c", "print(1)"}, {"PYTHONHOME=/usr"}, "python_files", 256u << 20}};

static const char *dir;
static hlsnap_error err;
static hlsnap_sandbox_desc desc;
static guest guests[] = {{"free", NULL, NULL, {0}, {0}}, {"musl", NULL, NULL, {0}, {0}}, {"glibc", NULL, NULL, {0}, {0}}};
static const program *running; /* by the rows of programs */

static void bad(const char *what) {
    fprintf(stderr, "programs: %s: %s\n", what, err.msg);
    exit(1);
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static int ascending(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *s, int n) {
    qsort(s, (size_t)n, sizeof(*s), ascending);
    return s[n / 2];
}

static const char *path_of(const char *name, char *path) {
    snprintf(path, 512, "%s/%s.elf", dir, name);
    return path;
}

/* ---- >>guests ---- */

static int32_t call_nop(const guest *g) {
    const hlsnap_value arg = hlsnap_i32(41);
    const hlsnap_invocation one = {g->nop, &arg, 1, 0, 0, NULL};
    hlsnap_value out;
    if (hlsnap_sandbox_invoke(g->sb, &one, 1, &out, NULL, &err)) bad("nop");
    return out.as.i32;
}

static double op_call(guest *g) {
    const double t = now();
    if (call_nop(g) != 42) bad("nop");
    return now() - t;
}

static double op_restore_call(guest *g) {
    const double t = now();
    if (hlsnap_sandbox_restore(g->sb, g->snapshot, &err)) bad("restore");
    if (call_nop(g) != 42) bad("nop");
    return now() - t;
}

static double op_spawn_call(guest *g) {
    guest other = *g;
    double t = now();
    if (hlsnap_sandbox_create_from(g->snapshot, &desc, &other.sb, &err)) bad("create_from");
    if (call_nop(&other) != 42) bad("nop");
    t = now() - t;
    hlsnap_sandbox_destroy(other.sb);
    return t;
}

static double op_syscall(guest *g) {
    const hlsnap_invocation one = {g->syscalls, NULL, 0, 0, 0, NULL};
    hlsnap_value out;
    if (hlsnap_sandbox_invoke(g->sb, &one, 1, &out, NULL, &err)) bad("syscalls");
    return (double)out.as.u64 / SYSCALLS;
}

static double op_native_syscall(guest *g) {
    uint64_t start = 0;
    (void)g;
    for (int i = -SYSCALLS / 10; i < SYSCALLS; i++) {
        long r;
        if (i == 0) start = __builtin_ia32_rdtsc();
        __asm__ volatile("syscall" : "=a"(r) : "a"((long)SYS_getppid) : "rcx", "r11", "memory");
    }
    return (double)(__builtin_ia32_rdtsc() - start) / SYSCALLS;
}

static bool open_guest(guest *g) {
    char path[512];
    hlsnap_guest_desc d = HLSNAP_ZERO;
    d.path = path_of(g->name, path);
    d.heap_size = 16u << 20;
    if (access(path, R_OK)) return false;
    if (hlsnap_sandbox_create(&d, &desc, &g->sb, &err)) bad(path);
    if (hlsnap_sandbox_find(g->sb, "nop", "i32(i32)", &g->nop, &err)) bad("nop");
    if (g != guests && hlsnap_sandbox_find(g->sb, "syscalls", "u64()", &g->syscalls, &err)) bad("syscalls");
    if (call_nop(g) != 42 || hlsnap_sandbox_snapshot(g->sb, &g->snapshot, &err)) bad("snapshot");
    return true;
}

/* ---- >>programs ---- */

static void *archive;
static size_t archive_size;

static void read_archive(const char *name) {
    char path[512];
    FILE *f = fopen(path_of(name, path), "rb");
    long n;
    if (!f || fseek(f, 0, SEEK_END) || (n = ftell(f)) < 0) bad(path);
    rewind(f);
    archive = malloc((size_t)n + 1);
    archive_size = archive ? fread(archive, 1, (size_t)n, f) : 0;
    fclose(f);
}

static size_t length(const char *const *list) {
    size_t n = 0;
    while (list[n]) n++;
    return n;
}

static double op_start(guest *g) {
    char path[512], runtime[512];
    hlsnap_guest_desc d = HLSNAP_ZERO;
    hlsnap_sandbox *sb;
    hlsnap_value status;
    double t = now();
    (void)g;
    d.path = path_of(running->file, path);
    d.runtime = path_of("linux", runtime);
    d.heap_size = running->heap;
    d.args = running->args;
    d.num_args = length(running->args);
    d.env = running->env;
    d.num_env = running->env[0] ? 1 : 0;
    d.files = running->archive ? archive : NULL;
    d.files_size = running->archive ? archive_size : 0;
    if (hlsnap_sandbox_create(&d, &desc, &sb, &err)) bad(path);
    if (hlsnap_sandbox_call(sb, "main", NULL, 0, &status, &err)) bad("main");
    hlsnap_sandbox_destroy(sb);
    t = now() - t;
    if (status.as.i32 != 0) bad("exit status");
    return t;
}

static double op_process(guest *g) {
    char path[512], *args[8] = {NULL}, *env[2] = {NULL};
    posix_spawn_file_actions_t actions;
    const double t = now();
    int status;
    pid_t pid;
    (void)g;
    for (size_t i = 0; i < 8 && running->args[i]; i++) args[i] = (char *)(uintptr_t)running->args[i];
    env[0] = (char *)(uintptr_t)running->env[0];
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_addopen(&actions, 1, "/dev/null", O_WRONLY, 0);
    if (posix_spawn(&pid, path_of(running->file, path), &actions, NULL, args, env)) bad(path);
    posix_spawn_file_actions_destroy(&actions);
    if (waitpid(pid, &status, 0) != pid || status) bad("the process");
    return now() - t;
}

/* ---- >>rows ---- */

static double block(double (*op)(guest *), guest *g, int n) {
    double s[MAX_SAMPLES];
    op(g); /* warm */
    for (int i = 0; i < n; i++) s[i] = op(g);
    return median(s, n);
}

static void row(const char *what, const char *who, const char *unit, double (*own)(guest *), guest *g, double (*limit)(guest *),
                guest *of, int rounds, int samples) {
    double a[MAX_ROUNDS], b[MAX_ROUNDS], ratio[MAX_ROUNDS];
    for (int i = 0; i < rounds; i++) {
        b[i] = block(limit, of, samples);
        a[i] = block(own, g, samples);
        ratio[i] = a[i] / b[i];
    }
    printf("%s_%s\t%s\t%.0f\t%.0f\t%.3f\t", what, who, unit, median(a, rounds), median(b, rounds), median(ratio, rounds));
    printf("%.3f..%.3f\n", ratio[(rounds - 1) / 10], ratio[(rounds - 1) * 9 / 10]);
    fflush(stdout);
}

static void guest_rows(guest *g, int rounds, int samples) {
    hlsnap_snapshot_info info;
    row("syscall", g->name, "cycles", op_syscall, g, op_native_syscall, NULL, rounds, samples / 4);
    row("call", g->name, "ns", op_call, g, op_call, guests, rounds, samples);
    row("restore_call", g->name, "ns", op_restore_call, g, op_restore_call, guests, rounds, samples);
    row("spawn_call", g->name, "ns", op_spawn_call, g, op_spawn_call, guests, rounds * 3, samples / 20);
    hlsnap_snapshot_get_info(g->snapshot, &info);
    printf("stored_%s\tpages\t%llu\t-\t-\t-\n", g->name, (unsigned long long)info.stored_pages);
}

static void program_row(const program *p, int rounds) {
    char path[512];
    if (access(path_of(p->file, path), X_OK)) {
        printf("# start_%s: SKIP: tests/programs.sh built no %s.elf\n", p->name, p->file);
        return;
    }
    if (p->archive) read_archive(p->archive);
    running = p;
    row("start", p->name, "ns", op_start, NULL, op_process, NULL, rounds, 3);
    free(archive);
    archive = NULL;
}

int main(int argc, char **argv) {
    int rounds = argc > 2 ? atoi(argv[2]) : 21;
    if (argc < 2) return fprintf(stderr, "usage: programs dir [rounds]\n"), 1;
    if (access("/dev/kvm", R_OK | W_OK)) return fprintf(stderr, "programs: SKIP: /dev/kvm: %s\n", strerror(errno)), 77;
    rounds = rounds < 1 ? 1 : rounds > MAX_ROUNDS / 3 ? MAX_ROUNDS / 3 : rounds;
    dir = argv[1];
    desc.hypervisor = hlsnap_kvm();
    print_machine();
    printf("# name\tunit\tvalue\tlimit\tratio\tp10..p90 of ratio\n");
    if (!open_guest(&guests[0])) bad("free.elf");
    for (size_t i = 1; i < HLSNAP_COUNT(guests); i++)
        if (open_guest(&guests[i])) guest_rows(&guests[i], rounds, rounds < 4 ? 40 : MAX_SAMPLES);
        else printf("# %s: SKIP: its compiler is not here\n", guests[i].name);
    for (size_t i = 0; i < HLSNAP_COUNT(programs); i++) program_row(&programs[i], rounds);
    for (size_t i = 0; i < HLSNAP_COUNT(guests); i++) {
        hlsnap_sandbox_destroy(guests[i].sb);
        hlsnap_snapshot_release(guests[i].snapshot);
    }
    return 0;
}

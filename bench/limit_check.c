/* limit_check.c - runs every limit of limit.h alone, each beside an independent figure for the same
   work.

   cc:  cc -std=gnu11 -O2 limit_check.c -lcrypto -o limit_check
   run: ./limit_check [dir [rounds [header]]]      dir: where files go, default "."; rounds: default
   5; header: measured by include_header prints one TSV row per limit: name  unit  value  min  max
   check  ratio  what the check is value, check and ratio are medians over the rounds, min and max
   are the lowest and highest round. A limit and its check run one after the other in every round;
   ratio is the median of value / check within a round. Exit 0, 1 on failure, 77 without /dev/kvm.
 */
#include "limit.h"

enum { MAX_ROUNDS = 99 };

typedef struct check_ctx {
    limit_ctx *c;
    limit_vm vm;         /* a second VM, driven without sync regs */
    double sha_rate;     /* bytes per nanosecond by openssl speed; 0: not measured yet */
    const char *program; /* the compiled compute process */
} check_ctx;

typedef struct row {
    const char *name;
    double (*limit)(limit_ctx *, int);
    int iterations;
    size_t arg; /* pages, or bytes of the blob for oci rows */
    double (*check)(check_ctx *, const struct row *);
    const char *what;
} row;

/* ---- >>exit ---- */

/* A VM whose registers only move through ioctls. */
static int check_open_vm(check_ctx *k)
{
    struct kvm_sregs sregs;
    limit_vm *v = &k->vm;

    if (limit_vm_map(k->c, v, k->c->image) != 0 || limit_vm_open(k->c, v) != 0 ||
        limit_vm_cpu(k->c, v) != 0)
        return -1;
    limit_set_sregs(k->c, &sregs);
    limit_set_regs(v, LIMIT_FN_EXIT, 0, 0, 0);
    v->run->kvm_dirty_regs = 0;
    if (ioctl(v->vcpu, KVM_SET_SREGS, &sregs) != 0 ||
        ioctl(v->vcpu, KVM_SET_REGS, &v->run->s.regs.regs) != 0)
        return (int)limit_fail(k->c, "KVM_SET_REGS");
    return limit_run(k->c, v);
}

/* SET_REGS + KVM_RUN + GET_REGS, less SET_REGS and GET_REGS alone: totals of a loop, not medians of
   samples. */
static double check_exit(check_ctx *k, const row *r)
{
    struct kvm_regs regs = k->vm.run->s.regs.regs;
    struct kvm_regs out;
    double t = limit_now(), ioctls;

    for (int i = 0; i < r->iterations; i++) {
        if (ioctl(k->vm.vcpu, KVM_SET_REGS, &regs) != 0 || limit_run(k->c, &k->vm) != 0 ||
            ioctl(k->vm.vcpu, KVM_GET_REGS, &out) != 0)
            return limit_fail(k->c, "exit with ioctls");
    }
    t = limit_now() - t;
    ioctls = limit_now();
    for (int i = 0; i < r->iterations; i++)
        if (ioctl(k->vm.vcpu, KVM_SET_REGS, &regs) != 0 ||
            ioctl(k->vm.vcpu, KVM_GET_REGS, &out) != 0)
            return limit_fail(k->c, "KVM_GET_REGS");
    ioctls = limit_now() - ioctls;
    return (t - ioctls) / r->iterations;
}

static double check_host_call(check_ctx *k, const row *r)
{
    double t = limit_now();

    for (int i = 0; i < r->iterations; i++)
        if (limit_run(k->c, &k->vm) != 0)
            return -1.0;
    return (limit_now() - t) / r->iterations;
}

/* ---- >>memory ---- */

/* memcpy page by page between two plain heap buffers, plus the bare exit loop of check_host_call.
 */
static double check_restore_call(check_ctx *k, const row *r)
{
    size_t size = (size_t)LIMIT_WINDOW_PAGES * LIMIT_PAGE;
    uint8_t *from = (uint8_t *)malloc(size), *to = (uint8_t *)malloc(size);
    double t, exit_ns = check_host_call(k, r);

    if (!from || !to || exit_ns < 0) {
        free(from);
        free(to);
        return limit_fail(k->c, "check_restore_call");
    }
    memset(from, 0x5a, size);
    memset(to, 0xa5, size);
    t = limit_now();
    for (int i = 0; i < r->iterations; i++)
        for (size_t at = 0; at < r->arg * LIMIT_PAGE; at += LIMIT_PAGE) {
            memcpy(to + at, from + at, LIMIT_PAGE);
            __asm__ volatile("" : : "r"(to) : "memory");
        }
    t = (limit_now() - t) / r->iterations;
    free(from);
    free(to);
    return t + exit_ns;
}

/* The same system calls in phases over 8 memfds at once: create all, fill each by one pwrite, seal
   all, close all. */
static double check_snapshot_once(check_ctx *k, const row *r)
{
    enum { FILES = 8 };
    int fd[FILES];
    double t = limit_now();

    for (int i = 0; i < FILES; i++)
        if ((fd[i] = limit_memfd(k->c, "check")) < 0)
            return -1.0;
    for (int i = 0; i < FILES; i++)
        if (pwrite(fd[i], k->c->pristine, r->arg * LIMIT_PAGE, 0) != (ssize_t)(r->arg * LIMIT_PAGE))
            return limit_fail(k->c, "pwrite");
    for (int i = 0; i < FILES; i++)
        if (limit_seal(k->c, fd[i]) != 0)
            return -1.0;
    if (r->limit == limit_snapshot_16_open)
        t = limit_now() - t;
    for (int i = 0; i < FILES; i++)
        close(fd[i]);
    return (r->limit == limit_snapshot_16_open ? t : limit_now() - t) / FILES;
}

static double check_snapshot(check_ctx *k, const row *r)
{
    double s[25];

    for (int i = 0; i < 25; i++)
        if ((s[i] = check_snapshot_once(k, r)) < 0)
            return -1.0;
    return limit_median(s, 25);
}

/* ---- >>machines ---- */

/* The sum of the medians of each step timed alone. */
static double check_spawn(check_ctx *k, const row *r)
{
    enum { STEPS = 4, MAX = 200 };
    static double s[STEPS][MAX];
    int n = r->iterations < MAX ? r->iterations : MAX;
    double sum = 0;

    for (int i = 0; i < n; i++) {
        limit_vm v = limit_vm_none();
        double t[STEPS + 1];
        int bad = 0;
        t[0] = limit_now();
        bad |= limit_vm_map(k->c, &v, k->c->image);
        t[1] = limit_now();
        bad |= bad ? -1 : limit_vm_open(k->c, &v);
        t[2] = limit_now();
        bad |= bad ? -1 : limit_vm_cpu(k->c, &v);
        t[3] = limit_now();
        bad |= bad ? -1 : limit_vm_first(k->c, &v);
        t[4] = limit_now();
        limit_vm_destroy(k->c, &v);
        if (bad)
            return -1.0;
        for (int j = 0; j < STEPS; j++)
            s[j][i] = t[j + 1] - t[j];
    }
    for (int j = 0; j < STEPS; j++)
        sum += limit_median(s[j], n);
    return sum;
}

static double check_op_cycle(limit_ctx *c)
{
    limit_vm v = limit_vm_none();
    double t = limit_now();
    int r = limit_vm_create(c, &v, c->image);

    limit_vm_destroy(c, &v);
    return r == 0 ? limit_now() - t : -1.0;
}

/* The median of create + first call + destroy, less the median spawn, taken in turns. */
static double check_destroy(check_ctx *k, const row *r)
{
    enum { MAX = 200 };
    double cycle[MAX], spawn[MAX];
    int n = r->iterations < MAX ? r->iterations : MAX;

    for (int i = 0; i < n; i++) {
        cycle[i] = check_op_cycle(k->c);
        spawn[i] = limit_op_spawn(k->c);
        if (cycle[i] < 0 || spawn[i] < 0)
            return limit_fail(k->c, "cycle");
    }
    return limit_median(cycle, n) - limit_median(spawn, n);
}

static double check_process_facts(check_ctx *k, const row *r)
{
    double t = limit_now();

    for (int i = 0; i < r->iterations; i++) {
        k->c->cpuid->nent = LIMIT_MAX_CPUID;
        if (ioctl(k->c->kvm, KVM_GET_SUPPORTED_CPUID, k->c->cpuid) != 0)
            return limit_fail(k->c, "KVM_GET_SUPPORTED_CPUID");
    }
    return (limit_now() - t) / r->iterations;
}

/* ---- >>files ---- */

/* The last line of a command's output that holds `key`, or an empty string. */
static void check_output(const char *command, const char *key, char *line, int size)
{
    char buffer[512];
    FILE *f = popen(command, "r");

    line[0] = 0;
    while (f && fgets(buffer, sizeof buffer, f))
        if (strstr(buffer, key))
            snprintf(line, (size_t)size, "%s", buffer);
    if (f)
        pclose(f);
}

static double check_sha256(check_ctx *k, const row *r)
{
    char line[512];
    const char *rate;

    check_output("openssl speed -elapsed -seconds 1 -bytes 65536 -mr -evp sha256 2>/dev/null",
                 "+F:", line, sizeof line);
    rate = strrchr(line, ':');
    errno = 0;
    k->sha_rate = rate ? strtod(rate + 1, NULL) / 1e9 : 0;
    return k->sha_rate > 0 ? (double)r->arg / k->sha_rate : limit_fail(k->c, "openssl speed");
}

/* The seconds that dd itself reports for a copy of the blob, in nanoseconds: the median of 5 runs.
 */
static double check_dd(check_ctx *k, const char *to, const char *flags)
{
    char command[1024], line[512], *copied;
    double s[5];

    snprintf(command, sizeof command, "LC_ALL=C dd if='%s' of='%s' bs=64k %s 2>&1; rm -f '%s'",
             k->c->blob_path, to, flags, to);
    for (int i = 0; i < 5; i++) {
        check_output(command, " copied, ", line, sizeof line);
        copied = strstr(line, " copied, ");
        errno = 0;
        if (!copied)
            return limit_fail(k->c, "dd");
        s[i] = strtod(copied + 9, NULL) * 1e9;
    }
    return limit_median(s, 5);
}

static double check_oci_save(check_ctx *k, const row *r)
{
    char *to = limit_join(k->c->dir, "limit.dd");
    double ns = to ? check_dd(k, to, "conv=fsync") : limit_fail(k->c, "malloc");

    free(to);
    return ns < 0 ? ns : ns + (double)r->arg / k->sha_rate;
}

static double check_oci_load(check_ctx *k, const row *r)
{
    char to[64];
    double ns, spawn = limit_spawn(k->c, r->iterations);

    snprintf(to, sizeof to, "/dev/shm/limit.%ld", (long)getpid());
    ns = check_dd(k, to, "");
    return ns < 0 || spawn < 0 ? -1.0 : ns + spawn + (double)r->arg / k->sha_rate;
}

/* ---- >>processes ---- */

/* Another program, compiled on its own, timing the same header with clock(). */
static int check_build_compute(check_ctx *k, const char *here)
{
    const char *cc = getenv("CC");
    char command[2048];
    char *source = limit_join(k->c->dir, "limit_compute.c");
    FILE *f = source ? fopen(source, "w") : NULL;

    k->program = limit_join(k->c->dir, "limit_compute");
    if (!f || !k->program) {
        free(source);
        return (int)limit_fail(k->c, "limit_compute.c");
    }
    fputs(
        "#include <stdio.h>\n#include <time.h>\n#include \"compute.h\"\n"
        "int main(int argc, char **argv)\n{\n"
        "    clock_t t = clock();\n    uint64_t x = 0;\n"
        "    for (int i = 0; i < 10; i++)\n"
        "        x ^= compute_run((uint64_t)argc + 2 * (uint64_t)i);\n"
        "    t = clock() - t;\n"
        "    printf(\"ns %f %s %d\\n\", (double)t / CLOCKS_PER_SEC * 1e8, argv[0], (int)(x & 1));\n"
        "    return 0;\n}\n",
        f);
    fclose(f);
    snprintf(command, sizeof command, "%s -std=gnu11 -O2 -I'%s' '%s' -o '%s'",
             cc && cc[0] ? cc : "cc", here, source, k->program);
    errno = 0;
    if (system(command) != 0) {
        free(source);
        return (int)limit_fail(k->c, command);
    }
    unlink(source);
    free(source);
    return 0;
}

static double check_compute(check_ctx *k, const row *r)
{
    char line[512];

    (void)r;
    check_output(k->program, "ns ", line, sizeof line);
    errno = 0;
    return line[0] ? strtod(line + 3, NULL) : limit_fail(k->c, k->program);
}

/* A shell that runs the compiler ten times, less one that runs `true` ten times as an external
   program. */
static double check_include(check_ctx *k, const row *r)
{
    const char *header = r->limit == limit_include_header ? k->c->header : NULL;
    char command[2][2048], file[512];
    double t[2];

    snprintf(file, sizeof file, "%.400s/limit_sh.c", k->c->dir);
    snprintf(
        command[0], sizeof command[0],
        "printf '#include <%%s>\\n' stdbool.h stddef.h stdint.h >'%s'; echo 'typedef int nothing;' "
        ">>'%s'; "
        "for i in 1 2 3 4 5 6 7 8 9 10; do ${CC:-cc} -fsyntax-only %s%.400s%s '%s' || exit 1; done",
        file, file, header ? "-include '" : "", header ? header : "", header ? "'" : "", file);
    snprintf(command[1], sizeof command[1],
             "for i in 1 2 3 4 5 6 7 8 9 10; do /bin/true || exit 1; done");
    for (int i = 0; i < 2; i++) {
        t[i] = limit_now();
        errno = 0;
        if (system(command[i]) != 0)
            return limit_fail(k->c, command[i]);
        t[i] = limit_now() - t[i];
    }
    unlink(file);
    return (t[0] - t[1]) / 10;
}

/* ---- >>main ---- */

#define KIB(n) ((size_t)(n) << 10)

static const row rows[] = {
    { "exit", limit_exit, 300, 0, check_exit, "SET_REGS+RUN+GET_REGS loop less the two ioctls" },
    { "host_call", limit_host_call, 300, 0, check_host_call, "KVM_RUN loop without sync regs" },
    { "restore_call_0", limit_restore_call_0, 200, 0, check_restore_call,
      "heap memcpy loop + KVM_RUN loop" },
    { "restore_call_1", limit_restore_call_1, 200, 1, check_restore_call,
      "heap memcpy loop + KVM_RUN loop" },
    { "restore_call_16", limit_restore_call_16, 200, 16, check_restore_call,
      "heap memcpy loop + KVM_RUN loop" },
    { "restore_call_64", limit_restore_call_64, 200, 64, check_restore_call,
      "heap memcpy loop + KVM_RUN loop" },
    { "restore_call_256", limit_restore_call_256, 100, 256, check_restore_call,
      "heap memcpy loop + KVM_RUN loop" },
    { "restore_call_1024", limit_restore_call_1024, 100, 1024, check_restore_call,
      "heap memcpy loop + KVM_RUN loop" },
    { "snapshot_16", limit_snapshot_16, 200, 16, check_snapshot,
      "the same calls in phases over 8 memfds" },
    { "snapshot_16_open", limit_snapshot_16_open, 200, 16, check_snapshot,
      "the same calls in phases over 8 memfds" },
    { "spawn", limit_spawn, 50, 0, check_spawn, "sum of the medians of the four steps" },
    { "destroy", limit_destroy, 50, 0, check_destroy, "create+destroy cycle less spawn" },
    { "process_facts", limit_process_facts, 20, 0, check_process_facts,
      "KVM_GET_SUPPORTED_CPUID loop" },
    { "sha256_1m", limit_hash, 20, KIB(1024), check_sha256, "openssl speed" },
    { "oci_save_64k", limit_oci_save, 20, KIB(64), check_oci_save,
      "dd conv=fsync + openssl speed" },
    { "oci_save_1m", limit_oci_save, 10, KIB(1024), check_oci_save,
      "dd conv=fsync + openssl speed" },
    { "oci_save_1m_overlap", limit_oci_save_overlap, 10, KIB(1024), check_oci_save,
      "dd conv=fsync + openssl speed" },
    { "oci_save_16m", limit_oci_save, 5, KIB(16384), check_oci_save,
      "dd conv=fsync + openssl speed" },
    { "oci_save_16m_overlap", limit_oci_save_overlap, 5, KIB(16384), check_oci_save,
      "dd conv=fsync + openssl speed" },
    { "oci_load_64k", limit_oci_load, 20, KIB(64), check_oci_load,
      "dd to /dev/shm + openssl speed + spawn" },
    { "oci_load_1m", limit_oci_load, 20, KIB(1024), check_oci_load,
      "dd to /dev/shm + openssl speed + spawn" },
    { "oci_load_16m", limit_oci_load, 5, KIB(16384), check_oci_load,
      "dd to /dev/shm + openssl speed + spawn" },
    { "compute", limit_compute, 10, 0, check_compute, "a separately compiled process, clock()" },
    { "include", limit_include, 10, 0, check_include, "sh loop of $CC less sh loop of true" },
    { "include_header", limit_include_header, 10, 0, check_include,
      "sh loop of $CC less sh loop of true" }
};

enum { ROWS = sizeof rows / sizeof rows[0] };

static int is_blob_row(const row *r)
{
    return r->arg >= KIB(64);
}

/* One limit and its check, once. */
static int run_row(check_ctx *k, const row *r, double *value, double *check, double *ratio)
{
    if (is_blob_row(r) && k->c->blob_size != r->arg && limit_set_bytes(k->c, r->arg) != 0)
        return -1;
    *value = r->limit(k->c, r->iterations);
    if (*value < 0)
        return -1;
    *check = r->check(k, r);
    *ratio = *check > 0 ? *value / *check : 0; /* a check that is a difference can drown in noise */
    return k->c->error[0] ? -1 : 0;
}

static int run_all(check_ctx *k, int rounds)
{
    static double value[ROWS][MAX_ROUNDS], check[ROWS][MAX_ROUNDS], ratio[ROWS][MAX_ROUNDS];

    for (int i = 0; i < rounds; i++)
        for (int j = 0; j < ROWS; j++)
            if ((rows[j].limit != limit_include_header || k->c->header) &&
                run_row(k, &rows[j], &value[j][i], &check[j][i], &ratio[j][i]) != 0) {
                fprintf(stderr, "limit_check: %s: %s\n", rows[j].name, k->c->error);
                return 1;
            }
    printf("name\tunit\tvalue\tmin\tmax\tcheck\tratio\twhat the check is\n");
    for (int j = 0; j < ROWS; j++) {
        double median = limit_median(value[j], rounds);
        if (median > 0)
            printf("%s\tns\t%.0f\t%.0f\t%.0f\t%.0f\t%.3f\t%s\n", rows[j].name, median, value[j][0],
                   value[j][rounds - 1], limit_median(check[j], rounds),
                   limit_median(ratio[j], rounds), rows[j].what);
    }
    return 0;
}

int main(int argc, char **argv)
{
    static limit_ctx c;
    check_ctx k = { &c, limit_vm_none(), 0, NULL };
    int rounds = argc > 2 ? atoi(argv[2]) : 5;
    int status = 1;
    char here[] = __FILE__, *slash = strrchr(here, '/');

    if (limit_open(&c, argc > 1 ? argv[1] : ".") != 0) {
        int skip = access("/dev/kvm", R_OK | W_OK) != 0;
        fprintf(stderr, "limit_check: %s%s\n", skip ? "SKIP: " : "", c.error);
        return skip ? 77 : 1;
    }
    if (slash)
        *slash = 0;
    c.header = argc > 3 ? argv[3] : NULL;
    rounds = rounds < 1 ? 1 : rounds > MAX_ROUNDS ? MAX_ROUNDS : rounds;
    if (check_build_compute(&k, slash ? here : ".") == 0 && check_open_vm(&k) == 0)
        status = run_all(&k, rounds);
    if (c.error[0])
        fprintf(stderr, "limit_check: %s\n", c.error);
    limit_vm_destroy(&c, &k.vm);
    if (k.program)
        unlink(k.program);
    free((void *)(uintptr_t)k.program);
    limit_close(&c);
    return status;
}

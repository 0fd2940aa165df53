/* limit_check.c - the limits of limit.h, each beside an independent figure for the same work.

   cc:  see ./run
   run: ./limit_check dir [rounds]     dir: where files go

   A row per limit: name, unit, value, check, ratio, what the check is. Medians over the rounds; in each round a limit and its
   check run one after the other. Exit 0, 1 on failure, 77 without /dev/kvm. */
#include "limit.h"

enum { MAX_ROUNDS = 99, TEXT = 64 << 20 };

typedef struct check_ctx {
    limit_ctx *c;
    limit_vm vm;         /* a second VM, driven without sync regs */
    double sha_rate;     /* bytes per nanosecond by openssl speed; 0: not measured yet */
    uint8_t *text;       /* TEXT bytes; dir/limit.text holds them too */
} check_ctx;

typedef struct row {
    const char *name;
    double (*limit)(limit_ctx *, const struct row *);
    int iterations;
    size_t arg; /* pages, or bytes of the blob */
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

enum { CHUNKS = 15 };

/* SET_REGS + KVM_RUN + GET_REGS, less SET_REGS and GET_REGS alone: the median of the totals of short loops. */
static double check_exit(check_ctx *k, const row *r)
{
    struct kvm_regs regs = k->vm.run->s.regs.regs;
    struct kvm_regs out;
    int n = r->iterations / CHUNKS;
    double s[CHUNKS];

    for (int chunk = 0; chunk < CHUNKS; chunk++) {
        double t = limit_now(), ioctls;
        for (int i = 0; i < n; i++)
            if (ioctl(k->vm.vcpu, KVM_SET_REGS, &regs) != 0 || limit_run(k->c, &k->vm) != 0 ||
                ioctl(k->vm.vcpu, KVM_GET_REGS, &out) != 0)
                return limit_fail(k->c, "exit with ioctls");
        t = limit_now() - t;
        ioctls = limit_now();
        for (int i = 0; i < n; i++)
            if (ioctl(k->vm.vcpu, KVM_SET_REGS, &regs) != 0 ||
                ioctl(k->vm.vcpu, KVM_GET_REGS, &out) != 0)
                return limit_fail(k->c, "KVM_GET_REGS");
        s[chunk] = (t - (limit_now() - ioctls)) / n;
    }
    return limit_median(s, CHUNKS);
}

static double check_host_call(check_ctx *k, const row *r)
{
    int n = r->iterations / CHUNKS;
    double s[CHUNKS];

    for (int chunk = 0; chunk < CHUNKS; chunk++) {
        double t = limit_now();
        for (int i = 0; i < n; i++)
            if (limit_run(k->c, &k->vm) != 0)
                return -1.0;
        s[chunk] = (limit_now() - t) / n;
    }
    return limit_median(s, CHUNKS);
}

/* ---- >>memory ---- */

/* memcpy page by page between two plain heap buffers, plus the bare exit loop of check_host_call.
 */
static double check_restore_call(check_ctx *k, const row *r)
{
    size_t size = (size_t)LIMIT_WINDOW_PAGES * LIMIT_PAGE;
    uint8_t *from = (uint8_t *)malloc(size), *to = (uint8_t *)malloc(size);
    double s[CHUNKS], t, exit_ns = check_host_call(k, r);

    if (!from || !to || exit_ns < 0) {
        free(from);
        free(to);
        return limit_fail(k->c, "check_restore_call");
    }
    memset(from, 0x5a, size);
    memset(to, 0xa5, size);
    for (int i = -1; i < CHUNKS; i++) {
        t = limit_now();
        for (size_t at = 0; at < r->arg * LIMIT_PAGE; at += LIMIT_PAGE) {
            memcpy(to + at, from + at, LIMIT_PAGE);
            __asm__ volatile("" : : "r"(to) : "memory");
        }
        if (i >= 0)
            s[i] = limit_now() - t;
    }
    t = limit_median(s, CHUNKS);
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
    for (int i = 0; i < FILES; i++)
        close(fd[i]);
    return (limit_now() - t) / FILES;
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

/* ---- >>map ---- */

/* The sum of the medians of each step timed alone. */
static double check_map(check_ctx *k, const row *r)
{
    enum { STEPS = 4, MAX = 200 };
    static double s[STEPS][MAX];
    limit_ctx *c = k->c;
    int n = r->iterations < MAX ? r->iterations : MAX;
    double sum = 0;

    for (int i = 0; i < n; i++) {
        int fd = -1, bad;
        uint8_t *p = c->map_data;
        double t[STEPS + 1];
        t[0] = limit_now();
        if (c->map_path) {
            fd = open(c->map_path, O_RDONLY | O_CLOEXEC);
            p = (uint8_t *)mmap(NULL, LIMIT_MAP_SIZE, PROT_READ, MAP_PRIVATE, fd, 0);
        }
        t[1] = limit_now();
        bad = p == MAP_FAILED || limit_map_show(c, p) != 0;
        t[2] = limit_now();
        limit_set_regs(&c->vm, LIMIT_FN_READ, LIMIT_MAP_BASE, c->map_pages, 0);
        bad = bad || limit_run(c, &c->vm) != 0;
        t[3] = limit_now();
        bad = bad || limit_map_show(c, NULL) != 0;
        if (c->map_path && p != MAP_FAILED)
            munmap(p, LIMIT_MAP_SIZE);
        if (fd >= 0)
            close(fd);
        t[4] = limit_now();
        if (bad)
            return limit_fail(c, "check_map");
        for (int j = 0; j < STEPS; j++)
            s[j][i] = t[j + 1] - t[j];
    }
    for (int j = 0; j < STEPS; j++)
        sum += limit_median(s[j], n);
    return sum;
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

/* What openssl itself says about SHA-256. */
static int check_rate(check_ctx *k)
{
    char line[512];
    const char *rate;

    check_output("openssl speed -elapsed -seconds 1 -bytes 65536 -mr -evp sha256 2>/dev/null",
                 "+F:", line, sizeof line);
    rate = strrchr(line, ':');
    errno = 0;
    k->sha_rate = rate ? strtod(rate + 1, NULL) / 1e9 : 0;
    return k->sha_rate > 0 ? 0 : (int)limit_fail(k->c, "openssl speed");
}

/* The seconds that dd itself reports for a copy of a file, in nanoseconds: the median of 5 runs. */
static double check_dd(check_ctx *k, const char *from, const char *to, const char *flags)
{
    char command[1024], line[512], *copied;
    double s[5];

    snprintf(command, sizeof command, "LC_ALL=C dd if='%s' of='%s' %s 2>&1", from, to, flags);
    for (int i = 0; i < 5; i++) {
        if (strncmp(to, "/dev/null", 9) != 0)
            unlink(to);
        check_output(command, " copied, ", line, sizeof line);
        copied = strstr(line, " copied, ");
        errno = 0;
        if (!copied)
            return limit_fail(k->c, "dd");
        s[i] = strtod(copied + 9, NULL) * 1e9;
    }
    if (strncmp(to, "/dev/null", 9) != 0)
        unlink(to);
    return limit_median(s, 5);
}

/* dd of so many bytes of the blob to a new file in dir. */
static double check_dd_blob(check_ctx *k, size_t bytes, const char *flags)
{
    char *to = limit_join(k->c->dir, "limit.dd"), text[128];
    double ns;

    snprintf(text, sizeof text, "bs=%zu count=1 %s", bytes, flags);
    ns = to ? check_dd(k, k->c->blob_path, to, text) : limit_fail(k->c, "malloc");
    free(to);
    return ns;
}

static double check_oci_save(check_ctx *k, const row *r)
{
    double ns = check_dd_blob(k, r->arg, "conv=fsync");

    return ns < 0 ? ns : ns + (double)r->arg / k->sha_rate;
}

/* The speed of chunk digests, over one MiB that stays in the cache: the median of 25. */
static double check_chunk_rate(check_ctx *k)
{
    double s[25];

    for (int i = 0; i < 25; i++) {
        s[i] = limit_now();
        if (limit_chunks(k->c, k->text, LIMIT_BATCH, k->c->sums) != 0)
            return -1.0;
        s[i] = limit_now() - s[i];
    }
    return LIMIT_BATCH / limit_median(s, 25);
}

/* Five new files; what two fsyncs of a directory add is not in it. */
static double check_delta_save(check_ctx *k, const row *r)
{
    const size_t sizes[5] = { r->arg, (r->arg + LIMIT_CHUNK - 1) / LIMIT_CHUNK * 32, 16384, 1024,
                              1024 };
    double sum = (double)r->arg / k->sha_rate + (double)r->arg / check_chunk_rate(k);

    for (int i = 0; i < 5; i++) {
        double ns = check_dd_blob(k, sizes[i], "conv=fsync");
        if (ns < 0)
            return ns;
        sum += ns;
    }
    return sum;
}

static double check_verify(check_ctx *k, const row *r)
{
    return (double)r->arg / k->sha_rate;
}

/* Chunk digests in the fastest way, over memory that does not fit the cache. That is not the time of
   openssl, but the digests must be EVP's: of whole batches, and of a tail with a short chunk. */
static double check_chunks(check_ctx *k, const row *r)
{
    const size_t tail = 21 * LIMIT_CHUNK + 192;
    uint8_t sums[22 * 32], digest[32];

    if (limit_chunks(k->c, k->text, tail, sums) != 0)
        return -1.0;
    for (size_t at = 0; at < tail; at += LIMIT_CHUNK) {
        size_t n = tail - at < LIMIT_CHUNK ? tail - at : LIMIT_CHUNK;
        if (limit_sha256(k->c, k->text + at, n, digest) != 0)
            return -1.0;
        errno = 0;
        if (memcmp(digest, sums + at / LIMIT_CHUNK * 32, 32) != 0)
            return limit_fail(k->c, "limit_chunks differs from EVP");
    }
    return (double)r->arg / k->sha_rate;
}

static double check_load(check_ctx *k, const row *r, const char *to)
{
    double ns = check_dd(k, k->c->load_path, to, "bs=1M");

    return ns < 0 ? ns : ns + (double)r->arg / check_chunk_rate(k);
}

static double check_load_mapped(check_ctx *k, const row *r)
{
    return check_load(k, r, "/dev/null");
}

static double check_load_private(check_ctx *k, const row *r)
{
    char to[64];

    snprintf(to, sizeof to, "/dev/shm/limit.%ld", (long)getpid());
    return check_load(k, r, to);
}

/* ---- >>main ---- */

static double do_exit(limit_ctx *c, const row *r)
{
    return limit_exit(c, r->iterations);
}

static double do_host_call(limit_ctx *c, const row *r)
{
    return limit_host_call(c, r->iterations);
}

static double do_restore_call(limit_ctx *c, const row *r)
{
    return limit_restore_call(c, r->arg, r->iterations);
}

static double do_snapshot(limit_ctx *c, const row *r)
{
    return limit_snapshot(c, (int)r->arg, r->iterations);
}

static double do_map(limit_ctx *c, const row *r)
{
    c->map_path = c->load_path;
    c->map_pages = r->arg;
    return limit_map(c, r->iterations);
}

static double do_map_shared(limit_ctx *c, const row *r)
{
    c->map_path = NULL;
    c->map_pages = r->arg;
    return limit_map(c, r->iterations);
}

static double do_spawn(limit_ctx *c, const row *r)
{
    return limit_spawn(c, r->iterations);
}

static double do_oci_save(limit_ctx *c, const row *r)
{
    return limit_oci_save(c, r->iterations);
}

static double do_delta_save(limit_ctx *c, const row *r)
{
    c->delta_size = r->arg;
    return limit_delta_save(c, r->iterations);
}

static double do_verify(limit_ctx *c, const row *r)
{
    return limit_verify(c, r->iterations);
}

static double do_chunks(limit_ctx *c, const row *r)
{
    double t = limit_now();

    return limit_chunks(c, c->text, r->arg, c->sums) == 0 ? limit_now() - t : -1.0;
}

static double do_load_mapped(limit_ctx *c, const row *r)
{
    return limit_load_mapped(c, r->iterations);
}

static double do_load_private(limit_ctx *c, const row *r)
{
    return limit_load_private(c, r->iterations);
}

static const row rows[] = {
    { "exit", do_exit, 300, 0, check_exit, "SET_REGS+RUN+GET_REGS loop less the two ioctls" },
    { "host_call", do_host_call, 300, 0, check_host_call, "KVM_RUN loop without sync regs" },
    { "restore_call_16", do_restore_call, 200, 16, check_restore_call, "memcpy loop + KVM_RUN loop" },
    { "restore_call_1024", do_restore_call, 50, 1024, check_restore_call,
      "memcpy loop + KVM_RUN loop" },
    { "map_16", do_map, 50, 16, check_map, "sum of the medians of the four steps" },
    { "map_shared", do_map_shared, 50, 16, check_map, "sum of the medians of the four steps" },
    { "snapshot_16", do_snapshot, 200, 16, check_snapshot, "the same calls in phases over 8 memfds" },
    { "spawn", do_spawn, 50, 0, check_spawn, "sum of the medians of the four steps" },
    { "oci_save_1m", do_oci_save, 10, 1 << 20, check_oci_save, "dd conv=fsync + openssl speed" },
    { "delta_save_1m", do_delta_save, 10, 1 << 20, check_delta_save,
      "dd conv=fsync of 5 files + openssl speed + chunk digests" },
    { "verify_64m", do_verify, 1, TEXT, check_verify, "openssl speed" },
    { "chunks_64m", do_chunks, 1, TEXT, check_chunks, "openssl speed; the digests are EVP's" },
    { "load_mapped_64m", do_load_mapped, 3, TEXT, check_load_mapped,
      "dd to /dev/null + chunk digests of a hot MiB" },
    { "load_private_64m", do_load_private, 3, TEXT, check_load_private,
      "dd to /dev/shm + chunk digests of a hot MiB" }
};

enum { ROWS = sizeof rows / sizeof rows[0] };

static int run_all(check_ctx *k, int rounds)
{
    static double value[ROWS][MAX_ROUNDS], check[ROWS][MAX_ROUNDS], ratio[ROWS][MAX_ROUNDS];

    for (int i = 0; i < rounds; i++)
        for (int j = 0; j < ROWS; j++) {
            value[j][i] = rows[j].limit(k->c, &rows[j]);
            check[j][i] = value[j][i] < 0 ? -1.0 : rows[j].check(k, &rows[j]);
            if (check[j][i] < 0)
                return (int)limit_fail(k->c, rows[j].name);
            ratio[j][i] = value[j][i] / check[j][i];
        }
    printf("# name\tunit\tvalue\tcheck\tratio\twhat the check is\n");
    for (int j = 0; j < ROWS; j++)
        printf("# limit_%s\tns\t%.0f\t%.0f\t%.3f\t%s\n", rows[j].name, limit_median(value[j], rounds),
               limit_median(check[j], rounds), limit_median(ratio[j], rounds), rows[j].what);
    return 0;
}

/* What the rows of files work on. */
static int check_open_text(check_ctx *k)
{
    char *path = limit_join(k->c->dir, "limit.text");
    int r;

    k->text = (uint8_t *)aligned_alloc(LIMIT_PAGE, TEXT);
    if (!path || !k->text)
        return (int)limit_fail(k->c, "malloc");
    limit_pattern(k->text, TEXT);
    k->c->text = k->text;
    k->c->text_size = TEXT;
    k->c->map_data = k->text;
    r = limit_write_file(k->c, path, k->text, TEXT);
    if (r == 0)
        r = limit_set_load(k->c, path);
    free(path);
    return r;
}

int main(int argc, char **argv)
{
    static limit_ctx c;
    check_ctx k = { &c, limit_vm_none(), 0, NULL };
    int rounds = argc > 2 ? atoi(argv[2]) : 5, status;

    if (limit_open(&c, argc > 1 ? argv[1] : ".") != 0) {
        fprintf(stderr, "limit_check: %s\n", c.error);
        return access("/dev/kvm", R_OK | W_OK) != 0 ? 77 : 1;
    }
    rounds = rounds < 1 ? 1 : rounds > MAX_ROUNDS ? MAX_ROUNDS : rounds;
    status = check_open_vm(&k) != 0 || check_rate(&k) != 0 || check_open_text(&k) != 0;
    if (!status)
        status = run_all(&k, rounds);
    if (status)
        fprintf(stderr, "limit_check: %s\n", c.error);
    limit_vm_destroy(&c, &k.vm);
    if (k.text)
        unlink(c.load_path ? c.load_path : "");
    free(k.text);
    limit_close(&c);
    return status != 0;
}

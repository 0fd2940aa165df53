/* server.c - examples/10_server.c under load: what a sandbox of its own for each request costs, beside other ways to answer it.

   cc:  see ./run
   run: ./server [--quick]

   Prints comment lines with CPU, kernel and N, then a row for each way and number of tenants, tab-separated: name, tenants,
   requests/s, p50 us, p99 us, CPU us per request, and the ratio of that to a limit, "-" where there is none. All ways share the
   HTTP part, and the function, which makes a line of text of the path:

     inside   the function called in the server, which trusts it
     fork     a fork for each request, by a server that holds nothing else
     renew    a new sandbox for each request, ended behind it
     restore  what the example does: one from a pool, which puts it back; there may be as many as own has
     few      the same, with as many as the example has, 2 for each worker, which more tenants take from each other
     own      a sandbox for each worker and tenant, put back before each request: without a pool. It is restore's limit
     reuse    the same, not put back: what one request left, the next one finds

   A last row for each number of tenants, pool, is restore less inside, beside own less inside: the same without the HTTP part.

   Clients and server are processes of their own; each of CLIENTS connections, which are kept, asks for one tenant after the other,
   from another one on. Requests per second and times are the clients', CPU is that of the server and its children. Values are
   medians over rounds in which the ways take turns; ratios are medians of the rounds' ratios. With as many clients as fit the
   machine's processors, times tell more of it than of hlsnap; CPU is what one pays. */
#define main example_main
#include "../examples/10_server.c"
#undef main

#include "machine.h"

#include <sys/resource.h>
#include <sys/wait.h>

enum { MAX_ROUNDS = 21, NUM_WAYS = 7, MAX_REQUESTS = 4000, PATH_SIZE = 32 };
static const int tenant_counts[] = {1, 8, 64};

static void bad(const char *what, const hlsnap_error *err) {
    fprintf(stderr, "server: %s: %s\n", what, err ? err->msg : strerror(errno));
    exit(1);
}

static double now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

/* ---- >>ways: what a worker does for a request ---- */

static hlsnap_sandbox_desc how;
static __thread hlsnap_sandbox *owned[MAX_TENANTS]; /* by the tenant's number */

/* Calls in a sandbox, and answers. */
static void call_and_answer(int fd, hlsnap_sandbox *sb, const char *path) {
    const hlsnap_value arg = hlsnap_str(path);
    hlsnap_value page;
    hlsnap_error err;
    const hlsnap_result r = hlsnap_sandbox_call(sb, "handle", &arg, 1, &page, &err);
    if (r) bad("handle", &err);
    answer(fd, 200, page.str, page.size);
}

static void serve_renew(int fd, const char *tag, const char *path) {
    hlsnap_snapshot *s;
    hlsnap_sandbox *sb;
    hlsnap_error err;
    if (tenant_snapshot(tag, &s, &err) || hlsnap_sandbox_create_from(s, &how, &sb, &err)) bad("renew", &err);
    call_and_answer(fd, sb, path);
    hlsnap_sandbox_destroy(sb);
    hlsnap_snapshot_release(s);
}

static void serve_owned(int fd, const char *tag, const char *path, bool restore) {
    hlsnap_sandbox **sb = &owned[atoi(tag + 1)];
    hlsnap_snapshot *s;
    hlsnap_error err;
    if (tenant_snapshot(tag, &s, &err)) bad("tenant_snapshot", &err);
    if (!*sb && hlsnap_sandbox_create_from(s, &how, sb, &err)) bad("create_from", &err);
    else if (restore && hlsnap_sandbox_restore(*sb, s, &err)) bad("restore", &err);
    call_and_answer(fd, *sb, path);
    hlsnap_snapshot_release(s);
}

static void serve_own(int fd, const char *tag, const char *path) { serve_owned(fd, tag, path, true); }
static void serve_reuse(int fd, const char *tag, const char *path) { serve_owned(fd, tag, path, false); }

/* The same function, as the guest's runtime calls it. */
static void serve_inside(int fd, const char *tag, const char *path) {
    _Alignas(8) uint8_t box[4096];
    const hlsnap_value arg = hlsnap_str(path);
    hlsnap__signature sig;
    hlsnap_abi_message head;
    hlsnap_value page;
    hlsnap_call call;
    (void)tag;
    memset(&call, 0, sizeof(call));
    hlsnap__signature_parse(&sig, "str(str)", 8);
    call.args = &arg;
    call.signature = &sig;
    call.out = box;
    call.out_size = sizeof(box);
    hlsnap__call_run(&call, handle, NULL);
    if (!hlsnap__message_read(box, call.used, &head, &page, 1) || page.type != HLSNAP_STR) bad("inside", NULL);
    answer(fd, 200, page.str, page.size);
}

static void serve_fork(int fd, const char *tag, const char *path) {
    int status = 1;
    const pid_t pid = fork();
    if (pid == 0) {
        serve_inside(fd, tag, path);
        _exit(0);
    }
    if (pid < 0 || waitpid(pid, &status, 0) != pid || status != 0) bad("fork", NULL);
}

typedef struct way {
    const char *name;
    void (*serve)(int fd, const char *tag, const char *path);
    int fewer; /* so many times fewer requests: it takes long */
} way;
enum { INSIDE, FORK, RENEW, RESTORE, OWN, REUSE, FEW };
static const way ways[NUM_WAYS] = {{"inside", serve_inside, 1}, {"fork", serve_fork, 4}, {"renew", serve_renew, 4},
                                   {"restore", serve, 1},       {"own", serve_own, 1},   {"reuse", serve_reuse, 1},
                                   {"few", serve, 1}};

/* ---- >>server: a process for each way ---- */

typedef struct server {
    pid_t pid;
    int port, control;
    double rate, p50, p99, cpu; /* of the round in progress; times in us */
} server;

static double cpu_of(int who) {
    struct rusage u;
    getrusage(who, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) * 1e6 + (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec);
}

/* In the child: serves until the parent is gone, and says what processor time it took whenever it is asked. */
static void run_server(const way *w, int tenants_now, int control) {
    hlsnap_pool_desc desc = HLSNAP_ZERO;
    pthread_t workers[WORKERS];
    hlsnap_error err;
    char ask;
    how.hypervisor = hlsnap_kvm();
    how.cpu_timeout_ns = 20000000;
    desc.sandbox = &how;
    desc.max_sandboxes = (uint32_t)(w == &ways[FEW] ? 2 * WORKERS : tenants_now * WORKERS);
    serves = w->serve;
    if (serves == serve && hlsnap_pool_create(&desc, &pool, &err)) bad("pool_create", &err);
    for (int i = 0; i < WORKERS; i++) pthread_create(&workers[i], NULL, worker, NULL);
    while (read(control, &ask, 1) == 1 && ask != 'e') {
        const double cpu = cpu_of(RUSAGE_SELF) + cpu_of(RUSAGE_CHILDREN);
        if (write(control, &cpu, sizeof(cpu)) != sizeof(cpu)) break;
    }
    _exit(0); /* sandboxes and all */
}

static void start_server(server *s, const way *w, int tenants_now) {
    int pair[2];
    s->port = listen_at(0);
    if (s->port < 0 || socketpair(AF_UNIX, SOCK_STREAM, 0, pair)) bad("listen", NULL);
    fflush(stdout);
    s->pid = fork();
    if (s->pid < 0) bad("fork", NULL);
    if (s->pid == 0) {
        close(pair[0]);
        run_server(w, tenants_now, pair[1]);
    }
    close(pair[1]);
    close(listener);
    s->control = pair[0];
}

static void end_server(server *s) {
    int status;
    if (write(s->control, "e", 1) != 1) bad("the end of a server", NULL); /* later ones hold the socket, too */
    close(s->control);
    if (waitpid(s->pid, &status, 0) != s->pid || status != 0) bad("a server ended by itself", NULL);
}

static double server_cpu(const server *s) {
    double cpu;
    if (write(s->control, "c", 1) != 1 || read(s->control, &cpu, sizeof(cpu)) != sizeof(cpu)) bad("a server's CPU", NULL);
    return cpu;
}

/* ---- >>clients ---- */

typedef struct load {
    int id, tenants, requests;
    double us[MAX_REQUESTS]; /* how long each took */
} load;
static load loads[CLIENTS];

static void *run_client(void *user) {
    load *l = (load *)user;
    char path[PATH_SIZE], body[256], want[64];
    int fd = -1;
    for (int i = 0; i < l->requests; i++) {
        const int who = (i + l->id * 17) % l->tenants;
        const double t = now_ns();
        snprintf(path, sizeof(path), "/t%d/hello", who);
        if (get(&fd, path, body, sizeof(body)) != 200) bad(path, NULL);
        l->us[i] = (now_ns() - t) / 1e3;
        snprintf(want, sizeof(want), "t%d, request 1: /hello\n", who);
        if (serves == serve && strcmp(body, want) != 0) bad("a strange answer", NULL);
    }
    close(fd);
    return NULL;
}

static int by_value(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double at_percent(double *v, int n, int percent) {
    qsort(v, (size_t)n, sizeof(*v), by_value);
    return v[(n - 1) * percent / 100];
}

/* So many requests by each client. */
static void run_load(server *s, const way *w, int tenants_now, int requests) {
    static double all[CLIENTS * MAX_REQUESTS];
    pthread_t clients[CLIENTS];
    const double cpu = server_cpu(s), t = now_ns();
    int n = 0;
    port = s->port;
    serves = w->serve == serve_own || w->serve == serve_renew ? serve : w->serve; /* whose answers are the first ones */
    for (int i = 0; i < CLIENTS; i++) {
        loads[i].id = i;
        loads[i].tenants = tenants_now;
        loads[i].requests = requests;
        pthread_create(&clients[i], NULL, run_client, &loads[i]);
    }
    for (int i = 0; i < CLIENTS; i++) pthread_join(clients[i], NULL);
    s->rate = requests * CLIENTS / (now_ns() - t) * 1e9;
    s->cpu = (server_cpu(s) - cpu) / (requests * CLIENTS);
    for (int i = 0; i < CLIENTS; i++)
        for (int k = 0; k < requests; k++) all[n++] = loads[i].us[k];
    s->p50 = at_percent(all, n, 50);
    s->p99 = at_percent(all, n, 99);
}

/* ---- >>rows ---- */

static double values[NUM_WAYS + 1][5][MAX_ROUNDS]; /* rate, p50, p99, cpu, ratio */

static void note_round(const server *s, int round) {
    for (int i = 0; i < NUM_WAYS; i++) {
        const double v[] = {s[i].rate, s[i].p50, s[i].p99, s[i].cpu, i == RESTORE ? s[i].cpu / s[OWN].cpu : 0};
        for (int k = 0; k < 5; k++) values[i][k][round] = v[k];
    }
    values[NUM_WAYS][3][round] = s[RESTORE].cpu - s[INSIDE].cpu;
    values[NUM_WAYS][4][round] = (s[RESTORE].cpu - s[INSIDE].cpu) / (s[OWN].cpu - s[INSIDE].cpu);
}

static void print_rows(int tenants_now, int rounds) {
    for (int i = 0; i <= NUM_WAYS; i++) {
        double v[5];
        for (int k = 0; k < 5; k++) v[k] = at_percent(values[i][k], rounds, 50);
        printf("%s\t%d\t", i < NUM_WAYS ? ways[i].name : "pool", tenants_now);
        if (i < NUM_WAYS) printf("%.0f\t%.0f\t%.0f\t%.1f\t", v[0], v[1], v[2], v[3]);
        else printf("-\t-\t-\t%.1f\t", v[3]);
        if (i == RESTORE || i == NUM_WAYS) printf("%.3f\n", v[4]);
        else printf("-\n");
    }
    fflush(stdout);
}

static void measure(int tenants_now, int rounds, int requests) {
    server servers[NUM_WAYS];
    for (int i = 0; i < NUM_WAYS; i++) {
        start_server(&servers[i], &ways[i], tenants_now);
        /* until each has what it needs; a pool makes another one when it has given out others' often enough */
        for (int n = ways[i].serve == serve ? 4 : 1; n > 0; n--)
            run_load(&servers[i], &ways[i], tenants_now, tenants_now * (ways[i].serve == serve ? 60 : 2) + 10);
    }
    for (int r = 0; r < rounds; r++) {
        for (int i = 0; i < NUM_WAYS; i++) run_load(&servers[i], &ways[i], tenants_now, requests / ways[i].fewer);
        note_round(servers, r);
    }
    for (int i = 0; i < NUM_WAYS; i++) end_server(&servers[i]);
    print_rows(tenants_now, rounds);
}

/* The layout, by a process of its own, so that no VM is in those that are measured. */
static void make_layout(int tenants_now) {
    int status = 1;
    const pid_t pid = fork();
    if (pid == 0) {
        hlsnap_error err;
        char tag[16];
        for (int i = 0; i < tenants_now; i++) {
            snprintf(tag, sizeof(tag), "t%d", i);
            if (publish(tag, tag, &err)) bad("publish", &err);
        }
        _exit(0);
    }
    if (pid < 0 || waitpid(pid, &status, 0) != pid || status != 0) bad("the layout", NULL);
}

int main(int argc, char **argv) {
    const bool quick = argc > 1 && strcmp(argv[1], "--quick") == 0;
    const int rounds = quick ? 3 : 9, requests = quick ? 100 : 1000, counts = quick ? 2 : 3;
    char dir[] = "/tmp/bench_server.XXXXXX", command[64];
    layout = mkdtemp(dir);
    if (!layout) bad("mkdtemp", NULL);
    (void)example_main;
    print_machine();
    printf("# %d connections, %d workers, %d rounds of %d requests for each connection, a quarter of that for fork and renew\n",
           CLIENTS, WORKERS, rounds, requests);
    printf("# name\ttenants\trequests/s\tp50 us\tp99 us\tCPU us\tratio\n");
    make_layout(tenant_counts[counts - 1]);
    for (int i = 0; i < counts; i++) measure(tenant_counts[i], rounds, requests);
    snprintf(command, sizeof(command), "rm -rf '%s'", dir);
    return system(command) != 0;
}

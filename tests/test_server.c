/* test_server.c - examples/10_server.c as something that runs for long: its own code, with other tenants and clients.

   cc:  cc -std=gnu11 -O2 -I.. -I. test_server.c -lcjson -pthread -o test_server
   run: ./test_server [name]      LONG=1: 100,000 requests instead of 3,000; without /dev/kvm all is skipped */
#define main example_main
#include "../examples/10_server.c"
#undef main

#include "test.h"

#include <dirent.h>

enum { TENANTS = 3 };

static pthread_t test_workers[WORKERS];
static char test_dir[] = "/tmp/test_server.XXXXXX";
static hlsnap_error last;
static bool is_long;

static bool is_served(void) {
    static const char *const names[TENANTS] = {"alice", "bob", "carol"};
    hlsnap_sandbox_desc how = HLSNAP_ZERO;
    hlsnap_pool_desc desc = HLSNAP_ZERO;
    int i;
    if (layout) return true;
    (void)example_main;
    is_long = getenv("LONG") && strcmp(getenv("LONG"), "0") != 0;
    layout = mkdtemp(test_dir);
    for (i = 0; i < TENANTS; i++)
        if (publish(names[i], "1", &last)) return false;
    how.hypervisor = hlsnap_kvm();
    how.cpu_timeout_ns = 8000000;
    desc.sandbox = &how;
    desc.max_sandboxes = WORKERS; /* they go from tenant to tenant */
    desc.wait_ns = 2000000000;
    if (!CHECK_EQ(hlsnap_pool_create(&desc, &pool, &last), HLSNAP_OK)) return false;
    if (!CHECK_EQ(hlsnap_oci_cache_create(1u << 30, &loading.cache, &last), HLSNAP_OK)) return false;
    port = listen_at(0);
    for (i = 0; i < WORKERS; i++) pthread_create(&test_workers[i], NULL, worker, NULL);
    return CHECK(port > 0);
}
#define NEED_SERVER \
    do { \
        if (access("/dev/kvm", R_OK | W_OK) != 0) SKIP("no /dev/kvm"); \
        if (!is_served()) { CHECK(!"the server"); return; } \
    } while (0)

/* ---- what a process holds ---- */

typedef struct held {
    long kib, descriptors, mappings;
} held;

static long lines_of(const char *path) {
    long n = 0;
    int c;
    FILE *f = fopen(path, "r");
    while (f && (c = getc(f)) != EOF) n += c == '\n';
    if (f) fclose(f);
    return n;
}
static held held_now(void) {
    held h = {0, 0, lines_of("/proc/self/maps")};
    char line[256];
    DIR *d = opendir("/proc/self/fd");
    FILE *f = fopen("/proc/self/status", "r");
    while (d && readdir(d)) h.descriptors++;
    while (f && fgets(line, sizeof(line), f))
        if (strncmp(line, "VmRSS:", 6) == 0) h.kib = atol(line + 6);
    if (d) closedir(d);
    if (f) fclose(f);
    return h;
}

/* ---- many requests, some of which crash, run for ever, or fill their memory ---- */

static uint32_t counts[600], wrong;

typedef struct job {
    int id, from, to;
} job;
static void *many(void *user) {
    static const char *const names[TENANTS] = {"alice", "bob", "carol"};
    static const struct {
        const char *path;
        int status;
    } kinds[] = {{"/crash", 502}, {"/spin", 504}, {"/flood", 502}, {"/hello", 200}};
    const job *j = (const job *)user;
    int i, fd = -1;
    for (i = j->from; i < j->to && __atomic_load_n(&wrong, __ATOMIC_RELAXED) < 20; i++) {
        const int kind = i % 50 == 7 ? 0 : i % 50 == 23 ? 1 : i % 50 == 41 ? 2 : 3, who = (i + j->id) % TENANTS;
        char path[64], body[1024], want[64] = "handle: the time limit", *text = body;
        int status;
        snprintf(path, sizeof(path), "/%s%s", names[who], kinds[kind].path);
        status = get(&fd, path, body, sizeof(body));
        if (kind == 3) snprintf(want, sizeof(want), "1, request 1: /hello\n"); /* its first, and its tenant's own */
        else if (kind != 1) strcpy(want, "guest fault: ");
        if (kind == 1) text = strstr(body, "time limit") ? strcpy(body, want) : body;
        if (status == kinds[kind].status && (kind == 3 ? strcmp(text, want) == 0 : strncmp(text, want, strlen(want)) == 0))
            __atomic_fetch_add(&counts[status], 1, __ATOMIC_RELAXED);
        else if (__atomic_fetch_add(&wrong, 1, __ATOMIC_RELAXED) < 5) printf("# request %d, %s: %d, %s\n", i, path, status, body);
    }
    close(fd);
    return NULL;
}
static void many_requests(int from, int to) {
    pthread_t clients[CLIENTS];
    job jobs[CLIENTS];
    int i;
    for (i = 0; i < CLIENTS; i++) {
        jobs[i] = (job){i, from + (to - from) / CLIENTS * i, from + (to - from) / CLIENTS * (i + 1)};
        pthread_create(&clients[i], NULL, many, &jobs[i]);
    }
    for (i = 0; i < CLIENTS; i++) pthread_join(clients[i], NULL);
}

static unsigned long long metric(const char *text, const char *which) {
    const char *at = strstr(text, which);
    return at ? strtoull(at + strlen(which), NULL, 10) : 0;
}

static void memory_stays_flat(void) {
    char body[1024] = "";
    held before, after;
    int num, fd = -1;
    NEED_SERVER;
    num = is_long ? 100000 : 3000;
    many_requests(0, num / 4 / 200 * 200);
    before = held_now();
    many_requests(num / 4 / 200 * 200, num / 200 * 200);
    after = held_now();
    printf("# %d requests; after a quarter %ld KiB, %ld descriptors, %ld mappings; at the end %ld, %ld, %ld\n", num / 200 * 200,
           before.kib, before.descriptors, before.mappings, after.kib, after.descriptors, after.mappings);
    CHECK_EQ(wrong, 0);
    CHECK_EQ(counts[200], num / 200 * 200 / 50 * 47);
    CHECK_EQ(counts[502], num / 200 * 200 / 50 * 2);
    CHECK_EQ(counts[504], num / 200 * 200 / 50);
    CHECK(after.kib < before.kib + 4096);
    CHECK(after.descriptors <= before.descriptors + 2);
    CHECK(after.mappings <= before.mappings + 200); /* of four sandboxes */
    CHECK_EQ(get(&fd, "/metrics", body, sizeof(body)), 200);
    CHECK_EQ(metric(body, "answered "), counts[200]);
    CHECK_EQ(metric(body, "crashed "), counts[502]);
    CHECK_EQ(metric(body, "out_of_time "), counts[504]);
    CHECK(metric(body, "sandboxes ") <= WORKERS);
    CHECK_EQ(get(&fd, "/nobody/hello", body, sizeof(body)), 404);
    close(fd);
}

/* ---- a tag that moves ---- */

static int published = 1, moves_end; /* the version that every request from now on must have, or a newer one */
static uint32_t followed;

static void *follow(void *user) {
    int fd = -1;
    (void)user;
    while (!__atomic_load_n(&moves_end, __ATOMIC_ACQUIRE)) {
        const int least = __atomic_load_n(&published, __ATOMIC_ACQUIRE);
        char body[1024] = "";
        int version = 0, number = 0;
        const int status = get(&fd, "/bob/hello", body, sizeof(body));
        if (status == 200 && sscanf(body, "%d, request %d: /hello", &version, &number) == 2 && number == 1 &&
            version >= least && version <= __atomic_load_n(&published, __ATOMIC_ACQUIRE) + 1)
            __atomic_fetch_add(&followed, 1, __ATOMIC_RELAXED);
        else if (__atomic_fetch_add(&wrong, 1, __ATOMIC_RELAXED) < 5)
            printf("# version %d or newer: %d, %s\n", least, status, body);
    }
    close(fd);
    return NULL;
}

static void tags_are_followed(void) {
    pthread_t clients[CLIENTS];
    char title[16];
    int i, moves;
    NEED_SERVER;
    moves = is_long ? 200 : 20;
    wrong = 0;
    for (i = 0; i < CLIENTS; i++) pthread_create(&clients[i], NULL, follow, NULL);
    for (i = 2; i < 2 + moves; i++) {
        snprintf(title, sizeof(title), "%d", i);
        CHECK_EQ(publish("bob", title, &last), HLSNAP_OK);
        __atomic_store_n(&published, i, __ATOMIC_RELEASE);
        usleep(20000);
    }
    __atomic_store_n(&moves_end, 1, __ATOMIC_RELEASE);
    for (i = 0; i < CLIENTS; i++) pthread_join(clients[i], NULL);
    printf("# %d moves, %u requests\n", moves, followed);
    CHECK_EQ(wrong, 0);
    CHECK(followed > (uint32_t)moves);
}

static const test_row tests[] = {TEST(memory_stays_flat), TEST(tags_are_followed)};

int main(int argc, char **argv) {
    const int r = TEST_MAIN(tests, argc, argv);
    int i;
    if (!pool) return r;
    shutdown(listener, SHUT_RDWR);
    for (i = 0; i < WORKERS; i++) pthread_join(test_workers[i], NULL);
    hlsnap_pool_destroy(pool);
    for (i = 0; i < (int)num_tenants; i++) hlsnap_snapshot_release(tenants[i].snapshot);
    hlsnap_oci_cache_destroy(loading.cache);
    sh("rm -rf '%s'", test_dir);
    return r;
}

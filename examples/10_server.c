/* 10_server.c - a server whose tenants bring their own native code: each has a snapshot in a layout, by a tag, and each request
   gets a sandbox of its own from a pool, as it was when its tenant was ready. You learn: hlsnap_pool_acquire and _release on
   several threads, a tag that is moved while requests run, limits, and what of a tenant's crash the others see: nothing.

   cc: cc -std=gnu11 -O2 -I.. 10_server.c -lcjson -pthread -o 10_server
   run: ./10_server
   prints: 2000 requests: 1600 answered, 200 crashed, 200 out of time; bob moved to version 2; no state crossed
   Without arguments it serves itself, some requests crash or run for ever, and ends; ./10_server store 8080 serves a layout
   until ^C: curl localhost:8080/alice/hello, /alice/crash, /metrics. bench/server.c measures it. */
#define HLSNAP_IMPLEMENTATION
#include "hlsnap.h"
#include "hlsnap_kvm.h"
#include "hlsnap_oci.h"
#include <arpa/inet.h>
#include <stdio.h>
#include <sys/socket.h>

enum { WORKERS = 4, CLIENTS = 4, EACH = 500, MAX_TENANTS = 64 };

/* ---- a tenant: anything that takes a path and gives a page ---- */

static char name[64];
static uint32_t served;

static hlsnap_result setup(hlsnap_call *call, void *user) {
    const hlsnap_value v = hlsnap_call_arg(call, 0);
    (void)user;
    if (v.size >= sizeof(name)) return HLSNAP_ERR_LIMIT;
    memcpy(name, v.str, v.size + 1);
    return HLSNAP_OK;
}

static hlsnap_result handle(hlsnap_call *call, void *user) {
    const char *path = hlsnap_call_arg(call, 0).str;
    if (strcmp(path, "/crash") == 0) *(volatile int *)user = 1;
    while (strcmp(path, "/spin") == 0) __asm__ volatile("" ::: "memory");
    while (strcmp(path, "/flood") == 0) memset(hlsnap_rt_malloc(4096), 1, 4096); /* until there is no more */
    return hlsnap_call_return_fmt(call, "%s, request %u: %s\n", name, ++served, path); /* always its first */
}

static const hlsnap_function exports[] = {{"setup", "void(str)", setup, NULL}, {"handle", "str(str)", handle, NULL}};
static const hlsnap_module tenant_code = {exports, HLSNAP_COUNT(exports), NULL, 0};

/* ---- tenants: tags of a layout ---- */

typedef struct tenant {
    char tag[64];
    hlsnap_oci_digest digest; /* what the tag meant when index.json was read last */
    hlsnap_oci_digest loaded; /* what `snapshot` is */
    hlsnap_snapshot *snapshot;
} tenant;

static const char *layout;
static hlsnap_oci_desc loading; /* with a cache: what tenants have in common is in memory once */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static tenant tenants[MAX_TENANTS];
static size_t num_tenants;
static struct stat index_seen;

static bool note_tag(const char *tag, const hlsnap_oci_digest *digest, uint64_t bytes, void *user) {
    size_t i;
    (void)bytes, (void)user;
    for (i = 0; i < num_tenants && strcmp(tenants[i].tag, tag) != 0; i++) { }
    if (!tag[0] || strlen(tag) >= sizeof(tenants[i].tag) || i == MAX_TENANTS) return true;
    if (i == num_tenants) strcpy(tenants[num_tenants++].tag, tag);
    tenants[i].digest = *digest;
    return true;
}

/* The tenant's snapshot, one reference more; index.json is read again when it was replaced. */
static hlsnap_result tenant_snapshot(const char *tag, hlsnap_snapshot **out, hlsnap_error *err) {
    char path[4096];
    struct stat now;
    hlsnap_result r = HLSNAP_OK;
    size_t i;
    *out = NULL;
    snprintf(path, sizeof(path), "%s/index.json", layout);
    pthread_mutex_lock(&lock);
    if (stat(path, &now) == 0 && (now.st_ino != index_seen.st_ino || now.st_mtim.tv_nsec != index_seen.st_mtim.tv_nsec)) {
        r = hlsnap_oci_list(layout, note_tag, NULL, err);
        if (!r) index_seen = now;
    }
    for (i = 0; i < num_tenants && strcmp(tenants[i].tag, tag) != 0; i++) { }
    if (!r && i < num_tenants && strcmp(tenants[i].digest.text, tenants[i].loaded.text) != 0) {
        hlsnap_snapshot *s;
        r = hlsnap_oci_load(layout, tenants[i].digest.text, &loading, &s, NULL, err);
        if (!r) {
            hlsnap_snapshot_release(tenants[i].snapshot); /* requests in progress have their own reference */
            tenants[i].snapshot = s;
            tenants[i].loaded = tenants[i].digest;
        }
    }
    if (!r && i < num_tenants) *out = hlsnap_snapshot_retain(tenants[i].snapshot);
    pthread_mutex_unlock(&lock);
    return r;
}

/* ---- the server ---- */

static hlsnap_pool *pool;
static int listener;
static uint64_t by_status[600];

static void answer(int fd, int status, const char *text, size_t size) {
    char head[128];
    const int n = snprintf(head, sizeof(head), "HTTP/1.1 %d\r\nContent-Length: %zu\r\n\r\n", status, size);
    __atomic_fetch_add(&by_status[status], 1, __ATOMIC_RELAXED);
    if (send(fd, head, (size_t)n, MSG_NOSIGNAL | MSG_MORE) < 0 || send(fd, text, size, MSG_NOSIGNAL) < 0) return;
}

static void metrics(int fd) {
    char text[600];
    hlsnap_pool_stats s;
    int n;
    hlsnap_pool_get_stats(pool, &s);
    n = snprintf(text, sizeof(text),
                 "answered %llu\nnot_found %llu\ncrashed %llu\nbusy %llu\nout_of_time %llu\nsandboxes %u\nidle %u\nbytes %llu\n"
                 "ready %llu\nmoved %llu\nmade %llu\nended %llu\n",
                 (unsigned long long)by_status[200], (unsigned long long)by_status[404], (unsigned long long)by_status[502],
                 (unsigned long long)by_status[503], (unsigned long long)by_status[504], s.sandboxes, s.idle,
                 (unsigned long long)s.bytes, (unsigned long long)s.ready, (unsigned long long)s.moved, (unsigned long long)s.made,
                 (unsigned long long)s.ended);
    answer(fd, 200, text, (size_t)n);
}

/* GET /TENANT/PATH */
static void serve(int fd, const char *tag, const char *path) {
    const hlsnap_value arg = hlsnap_str(path);
    hlsnap_snapshot *snapshot;
    hlsnap_sandbox *sb;
    hlsnap_value page;
    hlsnap_error err;
    hlsnap_result r = tenant_snapshot(tag, &snapshot, &err);
    if (!r && !snapshot) {
        answer(fd, 404, "no such tenant\n", 15);
        return;
    }
    if (!r) r = hlsnap_pool_acquire(pool, snapshot, &sb, &err);
    hlsnap_snapshot_release(snapshot);
    if (r) {
        answer(fd, 503, err.msg, strlen(err.msg));
        return;
    }
    r = hlsnap_sandbox_call(sb, "handle", &arg, 1, &page, &err);
    if (!r) answer(fd, 200, page.str, page.size);
    else answer(fd, r == HLSNAP_ERR_TIMEOUT ? 504 : 502, err.msg, strlen(err.msg)); /* a tenant's own trouble */
    hlsnap_pool_release(pool, sb);
}

static void (*serves)(int fd, const char *tag, const char *path) = serve; /* bench/server.c has others */

/* One request; false: there was none, or it is the connection's last one. A worker is a connection's for as long as it is open. */
static bool serve_next(int fd) {
    char request[2048], tag[64], path[1024];
    ssize_t n = 0, k;
    while (n < (ssize_t)sizeof(request) - 1 && (k = recv(fd, request + n, sizeof(request) - 1 - (size_t)n, 0)) > 0) {
        n += k;
        request[n] = 0;
        if (strstr(request, "\r\n\r\n")) break;
    }
    if (n == 0) return false;
    request[n] = 0;
    if (strncmp(request, "GET /metrics ", 13) == 0) metrics(fd);
    else if (sscanf(request, "GET /%63[A-Za-z0-9_.-]%1023[^ \r\n] HTTP/", tag, path) == 2) serves(fd, tag, path);
    else answer(fd, 400, "GET /TENANT/PATH\n", 17);
    return strstr(request, " HTTP/1.1\r\n") && !strstr(request, "\r\nConnection: close");
}

static void *worker(void *user) {
    static const struct timeval patience = {5, 0};
    int fd;
    (void)user;
    while ((fd = accept(listener, NULL, NULL)) >= 0) {
        setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
        while (serve_next(fd)) { }
        close(fd);
    }
    return NULL;
}

static int listen_at(uint16_t port) {
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t size = sizeof(at);
    const int yes = 1;
    listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes));
    if (bind(listener, (struct sockaddr *)&at, sizeof(at)) || listen(listener, 128)) return -1;
    return getsockname(listener, (struct sockaddr *)&at, &size) ? -1 : ntohs(at.sin_port);
}

/* ---- publishing a tenant, as its owner would ---- */

static hlsnap_result publish(const char *tag, const char *title, hlsnap_error *err) {
    const hlsnap_value arg = hlsnap_str(title);
    hlsnap_guest_desc guest = HLSNAP_ZERO;
    hlsnap_sandbox_desc desc = HLSNAP_ZERO;
    hlsnap_sandbox *sb;
    hlsnap_snapshot *s = NULL;
    hlsnap_result r;
    guest.self = &tenant_code;
    desc.hypervisor = hlsnap_kvm();
    r = hlsnap_sandbox_create(&guest, &desc, &sb, err);
    if (r) return r;
    r = hlsnap_sandbox_call(sb, "setup", &arg, 1, NULL, err);
    if (!r) r = hlsnap_sandbox_snapshot(sb, &s, err);
    if (!r) r = hlsnap_oci_save(layout, tag, s, NULL, NULL, err);
    hlsnap_snapshot_release(s);
    hlsnap_sandbox_destroy(sb);
    return r;
}

/* ---- a client ---- */

static int port;
static uint32_t strange;

/* The answer's status, or 0. The connection stays in *fd, -1 at first. */
static int get(int *fd, const char *path, char *body, size_t cap) {
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr = {htonl(INADDR_LOOPBACK)}};
    char text[2048] = "";
    const char *end = NULL;
    size_t n, size = 0;
    ssize_t k;
    int status = 0;
    if (*fd < 0) {
        *fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (connect(*fd, (struct sockaddr *)&at, sizeof(at))) goto failed;
    }
    n = (size_t)snprintf(text, sizeof(text), "GET %s HTTP/1.1\r\nHost: localhost\r\n\r\n", path);
    if (send(*fd, text, n, MSG_NOSIGNAL) != (ssize_t)n) goto failed;
    for (n = 0; !end || n < (size_t)(end - text) + size; n += (size_t)k) {
        k = recv(*fd, text + n, sizeof(text) - 1 - n, 0);
        if (k <= 0) goto failed;
        text[n + (size_t)k] = 0;
        if (end || !(end = strstr(text, "\r\n\r\n"))) continue;
        end += 4;
        if (sscanf(text, "HTTP/1.1 %d\r\nContent-Length: %zu", &status, &size) != 2 || size >= cap) goto failed;
    }
    memcpy(body, end, size);
    body[size] = 0;
    return status;
failed:
    close(*fd);
    *fd = -1;
    return 0;
}

static void *client(void *user) {
    static const char *const names[] = {"alice", "bob", "carol"};
    const int id = *(const int *)user;
    int i, fd = -1;
    for (i = 0; i < EACH; i++) {
        const char *who = names[(i + id) % 3], *what = i % 10 == 3 ? "/crash" : i % 10 == 7 ? "/spin" : "/hello";
        char path[64], body[1024] = "", want[2][128];
        int status;
        snprintf(path, sizeof(path), "/%s%s", who, what);
        status = get(&fd, path, body, sizeof(body));
        if (what[1] != 'h') {
            if (status != (what[1] == 'c' ? 502 : 504)) __atomic_fetch_add(&strange, 1, __ATOMIC_RELAXED);
            continue;
        }
        snprintf(want[0], sizeof(want[0]), "%s 1, request 1: /hello\n", who);
        snprintf(want[1], sizeof(want[1]), "%s 2, request 1: /hello\n", who);
        if (status != 200 || (strcmp(body, want[0]) != 0 && strcmp(body, want[1]) != 0))
            __atomic_fetch_add(&strange, 1, __ATOMIC_RELAXED);
    }
    close(fd);
    return NULL;
}

static hlsnap_result serves_itself(hlsnap_error *err) {
    int ids[CLIENTS], i, fd = -1;
    pthread_t clients[CLIENTS];
    char body[1024] = "";
    hlsnap_result r;
    for (i = 0; i < CLIENTS; i++) {
        ids[i] = i;
        pthread_create(&clients[i], NULL, client, &ids[i]);
    }
    while (__atomic_load_n(&by_status[200], __ATOMIC_RELAXED) < 400) usleep(1000);
    r = publish("bob", "bob 2", err); /* a new version, while requests for the old one run */
    for (i = 0; i < CLIENTS; i++) pthread_join(clients[i], NULL);
    if (r) return r;
    printf("%d requests: %llu answered, %llu crashed, %llu out of time; ", CLIENTS * EACH, (unsigned long long)by_status[200],
           (unsigned long long)by_status[502], (unsigned long long)by_status[504]);
    if (get(&fd, "/bob/hello", body, sizeof(body)) == 200 && strncmp(body, "bob 2,", 6) == 0) strcpy(body, "version 2");
    close(fd);
    printf("bob moved to %s; ", body);
    printf("%s\n", strange ? "some answers are strange" : "no state crossed");
    return HLSNAP_OK;
}

static int fail(hlsnap_result r, const hlsnap_error *err) {
    fprintf(stderr, "%s: %s\n", hlsnap_result_name(r), err->msg);
    return r == HLSNAP_ERR_HYPERVISOR ? 77 : 1;
}

int main(int argc, char **argv) {
    static const char *const own[] = {"alice", "bob", "carol"};
    char title[64], own_layout[] = "/tmp/10_server.XXXXXX";
    hlsnap_sandbox_desc how = HLSNAP_ZERO;
    hlsnap_pool_desc desc = HLSNAP_ZERO;
    pthread_t workers[WORKERS];
    hlsnap_error err;
    hlsnap_result r = HLSNAP_OK;
    size_t i;
    layout = argc > 2 ? argv[1] : mkdtemp(own_layout);
    for (i = 0; i < HLSNAP_COUNT(own) && !r && argc < 3; i++) {
        snprintf(title, sizeof(title), "%s 1", own[i]);
        r = publish(own[i], title, &err);
    }
    how.hypervisor = hlsnap_kvm();
    how.cpu_timeout_ns = 20000000;
    desc.sandbox = &how;
    desc.max_sandboxes = 2 * WORKERS;
    desc.wait_ns = 1000000000;
    if (!r) r = hlsnap_pool_create(&desc, &pool, &err);
    if (!r) r = hlsnap_oci_cache_create(1u << 30, &loading.cache, &err);
    if (r) return fail(r, &err);
    port = listen_at((uint16_t)(argc > 2 ? atoi(argv[2]) : 0));
    if (port < 0) return perror("listen"), 1;
    for (i = 0; i < WORKERS; i++) pthread_create(&workers[i], NULL, worker, NULL);
    if (argc < 3) r = serves_itself(&err);
    if (argc < 3) shutdown(listener, SHUT_RDWR); /* ends the workers */
    for (i = 0; i < WORKERS; i++) pthread_join(workers[i], NULL);
    close(listener);
    hlsnap_pool_destroy(pool);
    for (i = 0; i < num_tenants; i++) hlsnap_snapshot_release(tenants[i].snapshot);
    hlsnap_oci_cache_destroy(loading.cache);
    if (argc < 3) {
        char command[64];
        snprintf(command, sizeof(command), "rm -rf '%s'", own_layout);
        if (system(command) != 0) return 1;
    }
    return r ? fail(r, &err) : 0;
}

/* powerloss_disk.c - a disk with a cache, for powerloss.sh: a FUSE file system that is one file, for a loop device over it.
   What is written to it stays in memory until a flush (fsync), which brings it to another file, the medium.

   cc:  cc -std=gnu11 powerloss_disk.c $(pkg-config --cflags --libs fuse3) -o powerloss_disk
   run: ./powerloss_disk serve MEDIUM FILE SOCKET         as root: mounts over FILE; ends when that is unmounted, or
                                                     with its parent
        ./powerloss_disk image SOCKET TO JOURNAL SEED     at some moment: a copy of the disk as a power loss could leave it
                                                          prints the journal's sizes before and after: what was in the cache

   A copy is the medium, and of each sector that was written since the last flush one of its contents: the medium's, or any
   that was written since; sectors are not torn. What chooses among them (none, all, each on its own, those written first, those
   written last) follows from SEED. A write that the loop device had not completed is in the cache as soon as it came, which
   real disks do as well: nobody had been promised that it is not there. */
#define _GNU_SOURCE 1
#define FUSE_USE_VERSION 31
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>
#include <linux/fs.h>
#include <fuse.h>
#include <fuse_lowlevel.h>

#ifndef PR_SET_IO_FLUSHER
#define PR_SET_IO_FLUSHER 57
#endif
#define SECTOR 4096u

__attribute__((noreturn)) static void fatal(const char *what) {
    fprintf(stderr, "powerloss_disk: %s: %s\n", what, strerror(errno));
    exit(2);
}

static uint64_t seed;
static uint32_t chance(uint32_t n) {
    seed = seed * 6364136223846793005ull + 1442695040888963407ull;
    return (uint32_t)((seed >> 33) % n);
}

/* ---- the cache ---- */

typedef struct version {       /* of a sector, written since the last flush */
    struct version *older;
    uint32_t sector, order;    /* order: of the write that made it; several sectors of one have the same */
    uint8_t data[SECTOR];
} version;

static int medium;
static uint64_t size;          /* bytes */
static version **latest;       /* of each sector; NULL: the medium's */
static uint32_t *dirty;        /* sectors that have one */
static uint32_t num_dirty, writes;

static void sector_read(uint32_t sector, uint8_t *to) {
    if (latest[sector]) memcpy(to, latest[sector]->data, SECTOR);
    else if (pread(medium, to, SECTOR, (off_t)sector * SECTOR) != (ssize_t)SECTOR) fatal("read the medium");
}

static void cache_read(uint64_t at, uint32_t n, uint8_t *to) {
    uint8_t data[SECTOR];
    uint32_t k;
    for (; n; n -= k, at += k, to += k) {
        const uint32_t skip = (uint32_t)(at % SECTOR);
        k = SECTOR - skip < n ? SECTOR - skip : n;
        sector_read((uint32_t)(at / SECTOR), data);
        memcpy(to, data + skip, k);
    }
}

static void cache_write(uint64_t at, uint32_t n, const uint8_t *from) {
    uint32_t k;
    writes++;
    for (; n; n -= k, at += k, from += k) {
        const uint32_t sector = (uint32_t)(at / SECTOR), skip = (uint32_t)(at % SECTOR);
        version *v = (version *)malloc(sizeof(*v));
        if (!v) fatal("memory");
        k = SECTOR - skip < n ? SECTOR - skip : n;
        if (k < SECTOR) sector_read(sector, v->data);
        memcpy(v->data + skip, from, k);
        v->sector = sector;
        v->order = writes;
        v->older = latest[sector];
        if (!v->older) dirty[num_dirty++] = sector;
        latest[sector] = v;
    }
}

static void cache_flush(void) {
    uint32_t i;
    for (i = 0; i < num_dirty; i++) {
        version *v = latest[dirty[i]], *older;
        if (pwrite(medium, v->data, SECTOR, (off_t)v->sector * SECTOR) != (ssize_t)SECTOR) fatal("write the medium");
        latest[dirty[i]] = NULL;
        for (; v; v = older) {
            older = v->older;
            free(v);
        }
    }
    num_dirty = writes = 0;
}

/* ---- images ---- */

typedef enum survivors { NONE, ALL, EACH, FIRST, LAST, NUM_SURVIVORS } survivors;
static const char *const survivors_names[] = {"none", "all", "each on its own", "the first", "the last"};

static struct {
    int client;                /* waits for an image; -1: nobody */
    char to[300], journal[300];
    uint32_t after;            /* so many requests */
    bool at_flush;             /* and then, before the next flush of something */
    long long deadline;        /* but not later than that, in ms */
} asked = {-1, "", "", 0, false, 0};

/* Which content of a sector survives; NULL: the medium's. */
static const version *survivor(const version *v, survivors how, uint32_t limit) {
    uint32_t k = 0;
    const version *w;
    switch (how) {
    case ALL: return v;
    case EACH:
        if (chance(100) >= limit) return NULL;
        for (w = v; w; w = w->older) k++;
        for (k = chance(4) ? 0 : chance(k); k; k--) v = v->older; /* mostly the last that was written */
        return v;
    case FIRST:
        while (v && v->order > limit) v = v->older;
        return v;
    case LAST: return v->order > limit ? v : NULL;
    default: return NULL;
    }
}

static long long now_ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (long long)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static long long journal_size(void) {
    struct stat st;
    return stat(asked.journal, &st) == 0 ? (long long)st.st_size : -1;
}

static void image_take(void) {
    const survivors how = (survivors)chance(NUM_SURVIVORS + 2); /* EACH thrice */
    const survivors as = how >= NUM_SURVIVORS ? EACH : how;
    const uint32_t limit = as == EACH ? (chance(3) ? 10 + chance(80) : 100) : chance(writes + 1);
    const long long before = journal_size();
    uint32_t i, kept = 0;
    char line[300];
    const int to = open(asked.to, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (to < 0 || ioctl(to, FICLONE, medium) != 0) fatal("clone the medium");
    for (i = 0; i < num_dirty; i++) {
        const version *v = survivor(latest[dirty[i]], as, limit);
        if (!v) continue;
        kept++;
        if (pwrite(to, v->data, SECTOR, (off_t)v->sector * SECTOR) != (ssize_t)SECTOR) fatal("write an image");
    }
    close(to);
    snprintf(line, sizeof(line), "%lld %lld: cache of %u writes, %u sectors; survivors: %s, %u\n", before, journal_size(), writes,
             num_dirty, survivors_names[as], kept);
    if (send(asked.client, line, strlen(line), MSG_NOSIGNAL) < 0) perror("powerloss_disk: answer");
    close(asked.client);
    asked.client = -1;
}

/* Somebody wants an image: TO, JOURNAL, SEED, a line each. */
static void image_ask(int listener) {
    char line[700] = "";
    unsigned long long start;
    const int client = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    if (client < 0) return;
    if (asked.client >= 0 || recv(client, line, sizeof(line) - 1, 0) <= 0 ||
        sscanf(line, "%299[^\n]\n%299[^\n]\n%llu", asked.to, asked.journal, &start) != 3) {
        close(client);
        return;
    }
    asked.client = client;
    seed = start;
    chance(2);
    asked.after = 1 + chance(chance(2) ? 60 : 1000);
    asked.at_flush = chance(2);
    asked.deadline = now_ms() + 300;
}

/* Before a write or a flush is heeded. */
static void image_due(bool flush) {
    if (asked.client < 0) return;
    if (asked.after) asked.after--;
    if (!asked.after && (!asked.at_flush || (flush && num_dirty))) image_take();
}

/* ---- the file: only what a loop device asks of one ---- */

static int file_getattr(const char *path, struct stat *st, struct fuse_file_info *info) {
    (void)path, (void)info;
    st->st_mode = S_IFREG | 0600;
    st->st_nlink = 1;
    st->st_size = (off_t)size;
    return 0;
}

static int file_read(const char *path, char *to, size_t n, off_t at, struct fuse_file_info *info) {
    const uint64_t from = (uint64_t)at, left = from < size ? size - from : 0;
    (void)path, (void)info;
    if (n > left) n = left;
    cache_read(from, (uint32_t)n, (uint8_t *)to);
    return (int)n;
}

static int file_write(const char *path, const char *from, size_t n, off_t at, struct fuse_file_info *info) {
    (void)path, (void)info;
    if ((uint64_t)at > size || n > size - (uint64_t)at) return -ENOSPC;
    image_due(false);
    cache_write((uint64_t)at, (uint32_t)n, (const uint8_t *)from);
    return (int)n;
}

static int file_fsync(const char *path, int data_only, struct fuse_file_info *info) {
    (void)path, (void)data_only, (void)info;
    image_due(true);
    cache_flush();
    return 0;
}

static void *file_init(struct fuse_conn_info *conn, struct fuse_config *config) {
    (void)config;
    conn->want &= ~(unsigned)FUSE_CAP_WRITEBACK_CACHE; /* a write has come when the loop device completes it */
    return NULL;
}

static const struct fuse_operations file_operations = {
    .init = file_init, .getattr = file_getattr, .read = file_read, .write = file_write, .fsync = file_fsync};

/* ---- */

static struct sockaddr_un address(const char *path) {
    struct sockaddr_un a;
    memset(&a, 0, sizeof(a));
    a.sun_family = AF_UNIX;
    if (strlen(path) >= sizeof(a.sun_path)) {
        errno = ENAMETOOLONG;
        fatal(path);
    }
    strcpy(a.sun_path, path);
    return a;
}

static int serve(const char *path, const char *over, const char *name) {
    const struct sockaddr_un a = address(name);
    const int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    char program[] = "powerloss_disk", *argv[] = {program, NULL};
    struct fuse_args args = FUSE_ARGS_INIT(1, argv);
    struct fuse_buf request = {.mem = NULL};
    struct fuse_session *session;
    struct fuse *fuse;
    struct stat st;
    medium = open(path, O_RDWR | O_CLOEXEC);
    if (medium < 0 || fstat(medium, &st) != 0) fatal(path);
    size = (uint64_t)st.st_size / SECTOR * SECTOR;
    latest = (version **)calloc(size / SECTOR, sizeof(*latest));
    dirty = (uint32_t *)calloc(size / SECTOR, sizeof(*dirty));
    if (!latest || !dirty) fatal("memory");
    unlink(name);
    if (listener < 0 || bind(listener, (const struct sockaddr *)&a, sizeof(a)) != 0 || listen(listener, 4) != 0) fatal(name);
    prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
    prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0); /* memory it asks for must not wait for what is to be written here */
    fuse = fuse_new(&args, &file_operations, sizeof(file_operations), NULL);
    if (!fuse || fuse_mount(fuse, over) != 0) fatal("mount");
    session = fuse_get_session(fuse);
    while (!fuse_session_exited(session)) { /* until unmounted */
        struct pollfd polls[2] = {{fuse_session_fd(session), POLLIN, 0}, {listener, POLLIN, 0}};
        const int ready = poll(polls, 2, asked.client >= 0 ? 100 : -1);
        if (asked.client >= 0 && now_ms() > asked.deadline) image_take(); /* hardly anybody writes: also a moment */
        if (ready <= 0) continue;
        if (polls[1].revents) image_ask(listener);
        if (!polls[0].revents) continue;
        if (fuse_session_receive_buf(session, &request) > 0) fuse_session_process_buf(session, &request);
    }
    fuse_unmount(fuse);
    fuse_destroy(fuse);
    free(request.mem);
    return 0;
}

static int image(const char *name, const char *to, const char *journal, const char *start) {
    const struct sockaddr_un a = address(name);
    const int s = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct timespec wait = {0, 0};
    char line[700];
    ssize_t n;
    seed = strtoull(start, NULL, 10);
    chance(2);
    wait.tv_nsec = (long)chance(80) * 1000000;
    nanosleep(&wait, NULL);
    if (s < 0 || connect(s, (const struct sockaddr *)&a, sizeof(a)) != 0) fatal(name);
    n = snprintf(line, sizeof(line), "%s\n%s\n%s\n", to, journal, start);
    if (send(s, line, (size_t)n, MSG_NOSIGNAL) != n) fatal("ask");
    n = recv(s, line, sizeof(line), 0);
    if (n <= 0) fatal("answer");
    return fwrite(line, 1, (size_t)n, stdout) != (size_t)n;
}

int main(int argc, char **argv) {
    if (argc == 5 && strcmp(argv[1], "serve") == 0) return serve(argv[2], argv[3], argv[4]);
    if (argc == 6 && strcmp(argv[1], "image") == 0) return image(argv[2], argv[3], argv[4], argv[5]);
    fprintf(stderr, "usage: the top of powerloss_disk.c\n");
    return 2;
}

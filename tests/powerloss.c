/* powerloss.c - what powerloss.sh does with a layout: changes it for ever and keeps a journal; copies a disk at some moment;
   looks whether a copy, mounted, holds what the journal says.

   cc:  cc -std=gnu11 -I.. powerloss.c -lcjson -lcrypto -o powerloss
        with -DNO_FSYNC=S_IFDIR the library syncs no directory, with S_IFREG no file, with 0 nothing: to see that it is found out
   run: ./powerloss save DIR JOURNAL NUMBER SEED    forever: changes layouts below DIR, as saver NUMBER (0..9), ends with its
                                                    parent; one with an odd number has no O_TMPFILE
        ./powerloss clone FROM TO JOURNAL SEED      after a while: a reflink copy; prints the journal's sizes before and after
        ./powerloss check DIR JOURNAL BEFORE AFTER  the layouts below DIR, against a journal that had these sizes

   The journal lies outside of the file system that is copied. Each operation has a line before it begins and one after it
   returned HLSNAP_OK, so what had ended by the size BEFORE must be there, and what had begun by AFTER may be. */
#define _GNU_SOURCE 1
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include <openssl/sha.h>

static bool no_tmpfile;
static int weak_openat(int at, const char *name, int flags, ...) {
    const bool unnamed = (flags & O_TMPFILE) == O_TMPFILE; /* which has the bits of O_DIRECTORY, too */
    va_list ap;
    mode_t mode;
    va_start(ap, flags);
    mode = flags & O_CREAT || unnamed ? va_arg(ap, mode_t) : 0;
    va_end(ap);
    if (!no_tmpfile || !unnamed) return openat(at, name, flags, mode);
    errno = EOPNOTSUPP;
    return -1;
}
#define openat(...) weak_openat(__VA_ARGS__)
#ifdef NO_FSYNC
static int weak_fsync(int fd) {
    struct stat st;
    if (!NO_FSYNC || fstat(fd, &st) != 0 || (st.st_mode & S_IFMT) == NO_FSYNC) return 0;
    return fsync(fd);
}
#define fsync(fd) weak_fsync(fd)
#endif
#define HLSNAP_IMPLEMENTATION
#include "hlsnap_oci.h"
#define CHECK(c) ((c) ? (void)0 : abort()) /* this is no row of tests: test.h's would only count */
#define CHECK_EQ(a, b) ((a) == (b) || (abort(), 0))
#define CHECK_STR(a, b) CHECK(strcmp(a, b) == 0)
#include "oci_make.h"

#define MAX_TAGS 6
#define MAX_DEPTH 10           /* deltas over deltas */
#define SEQ_PER_SAVER 10000000u

static hlsnap_error err;
static uint64_t seed;
static uint32_t chance(uint32_t n) { return (uint32_t)(lcg(&seed) % n); }

__attribute__((noreturn)) static void fatal(const char *what, const char *detail) {
    fprintf(stderr, "powerloss: %s: %s (errno %d)\n", what, detail, errno);
    exit(2);
}

static void format(char *to, size_t cap, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
static void format(char *to, size_t cap, const char *fmt, ...) {
    va_list ap;
    int n;
    va_start(ap, fmt);
    n = vsnprintf(to, cap, fmt, ap);
    va_end(ap);
    if (n < 0 || (size_t)n >= cap) fatal("too long", to);
}

/* ---- snapshots: 2 MiB, and of every page it is known which sequence number wrote it ---- */

#define MAGIC 0x7265776f70736c68ull
#define MARK_PAGE 6            /* every snapshot writes it: it says whose the snapshot is */
#define HEAP_PAGE 16
#define HEAP_STORED 498
#define HEAP_MORE 264          /* pages more than the heap of oci_make.h */
#define END_PAGE (HEAP_PAGE + HEAP_STORED)

static bool page_stored(uint32_t page) { return page < 14 || (page >= HEAP_PAGE && page < END_PAGE); }

static void page_make(uint32_t seq, uint32_t page, uint64_t to[P / 8]) {
    uint64_t s = (uint64_t)seq << 12 | page;
    uint32_t k;
    for (k = 0; k < P / 8; k++) to[k] = lcg(&s);
    to[0] = MAGIC;
    to[1] = seq;
    to[2] = page;
}

/* Whether a delta writes a page: the mark, and three runs of its own. */
static bool delta_writes(uint32_t seq, uint32_t page) {
    uint64_t s = (uint64_t)seq * 77 + 1;
    int i;
    for (i = 0; i < 3; i++) {
        const uint32_t from = HEAP_PAGE + (uint32_t)(lcg(&s) % (HEAP_STORED - 24));
        const uint32_t n = 1 + (uint32_t)(lcg(&s) % 24);
        if (page >= from && page < from + n) return true;
    }
    return page == MARK_PAGE;
}

static hlsnap__guest *guest_big(void) {
    hlsnap__guest *g = guest_new();
    uint32_t i;
    for (i = 0; i < g->layout.num_regions; i++) {
        if (g->layout.regions[i].kind == HLSNAP__HEAP) g->layout.regions[i].pages += HEAP_MORE;
        else if (g->layout.regions[i].gva > BASE + HEAP_PAGE * P) g->layout.regions[i].gva += HEAP_MORE * P;
    }
    g->layout.pages += HEAP_MORE;
    g->id = hlsnap__guest_id(g);
    return g;
}

static hlsnap_snapshot *snapshot_make(uint32_t seq, const hlsnap_snapshot *base) {
    const uint32_t num = base ? base->num_layers : 0;
    hlsnap__layer *layers[HLSNAP__MAX_LAYERS];
    hlsnap__guest *g = base ? base->guest : guest_big();
    static hlsnap__extent e[END_PAGE];
    hlsnap_snapshot *s;
    uint64_t data[P / 8];
    uint32_t page, n = 0, fresh = 0, i;
    const int fd = hlsnap__memfd(NULL);
    for (page = 0; page < END_PAGE; page++) {
        const hlsnap__extent *old = base ? hlsnap__extent_at(base, page) : NULL;
        hlsnap__extent now = {page, 1, num, fresh};
        if (!page_stored(page)) continue;
        if (old && !delta_writes(seq, page)) {
            now.layer = old->layer;
            now.layer_page = old->layer_page + (page - old->page);
        } else {
            page_make(seq, page, data);
            if (pwrite(fd, data, P, (off_t)(fresh++ * P)) != (ssize_t)P) fatal("memory", "page");
        }
        if (n && page != 4 && page != MARK_PAGE && e[n - 1].page + e[n - 1].pages == page && e[n - 1].layer == now.layer &&
            e[n - 1].layer_page + e[n - 1].pages == now.layer_page)
            e[n - 1].pages++; /* 4 and 6: where regions begin */
        else
            e[n++] = now;
    }
    hlsnap__memfd_seal(fd, NULL);
    for (i = 0; i < num; i++) layers[i] = base->layers[i];
    layers[num] = hlsnap__layer_create(fd, true, fresh, NULL);
    if (hlsnap__snapshot_create(g, 7, layers, num + 1, e, n, &s, &err)) fatal("snapshot", err.msg);
    hlsnap__layer_release(layers[num]);
    if (!base) hlsnap__guest_release(g);
    return s;
}

/* ---- the saver ---- */

typedef struct value { uint32_t seq, depth; char digest[72]; } value; /* of a tag; seq 0: there is none */
typedef struct place {         /* a layout, and the tags of this saver in it */
    char name[24], path[300];
    struct { char name[16]; value v; } tags[MAX_TAGS];
} place;

static struct {
    const char *dir;
    int journal;
    char who;                  /* '0'..'9' */
    uint32_t ops, seq, news;
    hlsnap_snapshot *held;     /* what was saved last */
    value held_value;
} saver;

static void journal_line(const char *line) { /* one write: another saver appends, too */
    const size_t n = strlen(line);
    if (write(saver.journal, line, n) != (ssize_t)n) fatal("journal", line);
}

static void op_begin(const char *kind, const place *p, int tag, uint32_t seq, uint32_t base, const char *digest) {
    char line[400];
    format(line, sizeof(line), "B %c %u %s %s %s %u %u %s\n", saver.who, ++saver.ops, kind, p->name,
           tag < 0 ? "-" : p->tags[tag].name, seq, base, digest && *digest ? digest : "-");
    journal_line(line);
}

static void op_end(const char *kind, hlsnap_result r, const char *digest) {
    char line[200];
    if (r) fatal(kind, err.msg);
    format(line, sizeof(line), "E %c %u %s %s\n", saver.who, saver.ops, kind, digest && *digest ? digest : "-");
    journal_line(line);
}

static void place_set(place *p, const char *name) {
    int i;
    memset(p, 0, sizeof(*p));
    format(p->name, sizeof(p->name), "%s", name);
    format(p->path, sizeof(p->path), "%s/%s", saver.dir, name);
    for (i = 0; i < MAX_TAGS; i++) /* a saver's own: what the other one moves says nothing about what had to be there */
        format(p->tags[i].name, sizeof(p->tags[i].name), i ? "t%c.%d" : "last%c", saver.who, i);
}

/* A tag that is there; -1 when none is. */
static int some_tag(const place *p) {
    int i, at = (int)chance(MAX_TAGS);
    for (i = 0; i < MAX_TAGS; i++, at = (at + 1) % MAX_TAGS)
        if (p->tags[at].v.seq) return at;
    return -1;
}

/* What a save goes from: nothing, what was saved before, or what a tag leads to. The caller releases it. */
static hlsnap_snapshot *base_choose(const place *p, value *v) {
    const uint32_t way = chance(4);
    hlsnap_snapshot *base = NULL;
    const int tag = some_tag(p);
    memset(v, 0, sizeof(*v));
    if (way == 1 && saver.held) {
        base = saver.held;
        hlsnap__retain(&base->refs);
        *v = saver.held_value;
    } else if (way >= 2 && tag >= 0) {
        *v = p->tags[tag].v;
        if (v->depth < MAX_DEPTH && hlsnap_oci_load(p->path, p->tags[tag].name, NULL, &base, NULL, &err)) fatal("load", err.msg);
    }
    if (v->depth < MAX_DEPTH) return base;
    hlsnap_snapshot_release(base);
    memset(v, 0, sizeof(*v));
    return NULL;
}

static void do_save(place *p, int tag) {
    value v, *to = &p->tags[tag].v;
    hlsnap_oci_digest digest;
    hlsnap_snapshot *base = base_choose(p, &v), *s;
    const uint32_t seq = (uint32_t)(saver.who - '0' + 1) * SEQ_PER_SAVER + ++saver.seq;
    s = snapshot_make(seq, base);
    hlsnap_snapshot_release(base);
    op_begin("save", p, tag, seq, v.seq, NULL);
    op_end("save", hlsnap_oci_save(p->path, p->tags[tag].name, s, NULL, &digest, &err), digest.text);
    to->depth = base ? v.depth + 1 : 0;
    to->seq = seq;
    memcpy(to->digest, digest.text, sizeof(to->digest));
    hlsnap_snapshot_release(saver.held);
    saver.held = s;
    saver.held_value = *to;
}

static void do_flatten(place *p, int from, int tag) {
    hlsnap_oci_digest digest;
    op_begin("flatten", p, tag, p->tags[from].v.seq, 0, NULL);
    op_end("flatten", hlsnap_oci_flatten(p->path, p->tags[from].name, p->tags[tag].name, NULL, &digest, &err), digest.text);
    p->tags[tag].v = p->tags[from].v;
    memcpy(p->tags[tag].v.digest, digest.text, sizeof(digest.text));
}

static void do_tag(place *p, int from, int tag) {
    const value *v = &p->tags[from].v;
    const bool by_digest = chance(2);
    op_begin("tag", p, tag, v->seq, 0, v->digest);
    op_end("tag", hlsnap_oci_tag(p->path, by_digest ? v->digest : p->tags[from].name, p->tags[tag].name, &err), v->digest);
    p->tags[tag].v = *v;
}

static void do_untag(place *p, int tag) {
    op_begin("untag", p, tag, 0, 0, NULL);
    op_end("untag", hlsnap_oci_untag(p->path, p->tags[tag].name, &err), NULL);
    memset(&p->tags[tag].v, 0, sizeof(p->tags[tag].v));
}

static void do_gc(const place *p) {
    op_begin("gc", p, -1, 0, 0, NULL);
    op_end("gc", hlsnap_oci_gc(p->path, 0, NULL, &err), NULL);
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw) {
    (void)st, (void)type, (void)ftw;
    return remove(path);
}

/* Another layout instead of this one, so that there are first saves, too. Of one that goes nothing is asked any more. */
static void do_new(place *p) {
    char name[24];
    if (p->name[0]) {
        op_begin("retire", p, -1, 0, 0, NULL);
        nftw(p->path, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    }
    format(name, sizeof(name), "new%c-%u", saver.who, ++saver.news);
    place_set(p, name);
    do_save(p, 0);
}

__attribute__((noreturn)) static void run_save(const char *dir, const char *journal, const char *number, const char *start) {
    static place store, other;
    prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
    saver.dir = dir;
    saver.who = number[0];
    no_tmpfile = (saver.who - '0') % 2;
    saver.journal = open(journal, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    if (saver.journal < 0) fatal("open", journal);
    seed = strtoull(start, NULL, 10) * 10 + (unsigned)(saver.who - '0');
    place_set(&store, "store");
    do_save(&store, 0);
    do_new(&other);
    for (;;) {
        place *p = chance(4) ? &store : &other;
        const int from = some_tag(p), to = (int)chance(MAX_TAGS);
        const uint32_t what = chance(100);
        if (what < 35) do_save(p, 0);
        else if (what < 60 || from < 0) do_save(p, to);
        else if (what < 70) do_tag(p, from, to);
        else if (what < 78) do_untag(p, from);
        else if (what < 86) do_flatten(p, from, chance(2) ? from : to);
        else if (what < 95) do_gc(p);
        else do_new(&other);
    }
}

/* ---- the moment ---- */

static long long journal_size(const char *journal) {
    struct stat st;
    if (stat(journal, &st) != 0) fatal("stat", journal);
    return (long long)st.st_size;
}

static int run_clone(const char *from, const char *to, const char *journal, const char *start) {
    const int in = open(from, O_RDONLY | O_CLOEXEC), out = open(to, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    struct timespec wait = {0, 0};
    long long before;
    if (in < 0 || out < 0) fatal("open", in < 0 ? from : to);
    seed = strtoull(start, NULL, 10);
    wait.tv_nsec = 5000000 + (long)chance(100000) * 1000;
    nanosleep(&wait, NULL);
    before = journal_size(journal);
    if (ioctl(out, HLSNAP__FICLONE, in) != 0) fatal("clone", to);
    printf("%lld %lld\n", before, journal_size(journal));
    return 0;
}

/* ---- the checker ---- */

typedef struct op {            /* a line of the journal that some operation began, and what became of it */
    char who, kind[12], layout[24], tag[16], digest[72]; /* digest "": not known */
    uint32_t number, seq, base;
    bool before, after;        /* it had ended by then */
} op;
typedef struct may { uint32_t seq; char digest[72]; } may; /* seq 0: the tag is not there */
typedef struct expect {        /* of a tag: any of these; of one that had no operation: nothing */
    char layout[24], tag[16];
    int num;
    bool seen;
    may may[100];
} expect;

static op *ops;
static int num_ops, bad_lost, bad_torn, loads, layouts_seen;
static expect *expects;
static int num_expects;
static char retired[1000][24];
static int num_retired;

static void bad(int *which, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void bad(int *which, const char *fmt, ...) {
    va_list ap;
    ++*which;
    printf("# %s: ", which == &bad_lost ? "lost" : "torn");
    va_start(ap, fmt);
    vprintf(fmt, ap);
    va_end(ap);
    printf("\n");
}

static void journal_read(const char *path, long long before, long long after) {
    int last[10], w, size = 0;
    char line[400];
    FILE *f = fopen(path, "re");
    if (!f) fatal("open", path);
    for (w = 0; w < 10; w++) last[w] = -1;
    for (;;) {
        op o;
        if (ftello(f) >= after || !fgets(line, sizeof(line), f)) break;
        memset(&o, 0, sizeof(o));
        if (sscanf(line, "B %c %u %11s %23s %15s %u %u %71s", &o.who, &o.number, o.kind, o.layout, o.tag, &o.seq, &o.base,
                   o.digest) == 8) {
            if (strcmp(o.digest, "-") == 0) o.digest[0] = 0;
            if (num_ops == size) {
                size = size ? 2 * size : 1024;
                ops = (op *)realloc(ops, (size_t)size * sizeof(*ops));
                if (!ops) fatal("memory", path);
            }
            last[o.who - '0'] = num_ops;
            ops[num_ops++] = o;
        } else if (sscanf(line, "E %c %u %11s %71s", &o.who, &o.number, o.kind, o.digest) == 4) {
            op *b = &ops[last[o.who - '0']];
            if (last[o.who - '0'] < 0 || b->number != o.number) fatal("journal", line);
            b->before = ftello(f) <= before;
            b->after = true;
            if (o.digest[0] != '-') memcpy(b->digest, o.digest, sizeof(b->digest));
        } else {
            fatal("journal", line);
        }
    }
    fclose(f);
}

static bool is_retired(const char *layout) {
    int i;
    for (i = num_retired - 1; i >= 0; i--)
        if (strcmp(retired[i], layout) == 0) return true;
    return false;
}

static expect *expect_of(const char *layout, const char *tag) {
    int i;
    for (i = num_expects - 1; i >= 0; i--)
        if (strcmp(expects[i].layout, layout) == 0 && strcmp(expects[i].tag, tag) == 0) return &expects[i];
    return NULL;
}

static void expects_make(void) {
    int i;
    for (i = 0; i < num_ops; i++)
        if (strcmp(ops[i].kind, "retire") == 0) {
            if (num_retired == (int)HLSNAP_COUNT(retired)) fatal("journal", "too many layouts");
            memcpy(retired[num_retired++], ops[i].layout, sizeof(retired[0]));
        }
    for (i = 0; i < num_ops; i++) {
        const op *o = &ops[i];
        expect *e;
        if (strcmp(o->tag, "-") == 0 || is_retired(o->layout)) continue;
        e = expect_of(o->layout, o->tag);
        if (!e) {
            expects = (expect *)realloc(expects, (size_t)(num_expects + 1) * sizeof(*expects));
            if (!expects) fatal("memory", o->layout);
            e = &expects[num_expects++];
            memset(e, 0, sizeof(*e));
            memcpy(e->layout, o->layout, sizeof(e->layout));
            memcpy(e->tag, o->tag, sizeof(e->tag));
            e->num = 1; /* not there */
        }
        if (o->before) e->num = 0;
        if (e->num == (int)HLSNAP_COUNT(e->may)) fatal("journal", "too much at once");
        e->may[e->num].seq = o->seq;
        memcpy(e->may[e->num++].digest, o->digest, sizeof(o->digest));
    }
}

static bool may_be_absent(const expect *e) {
    int i;
    for (i = 0; i < e->num; i++)
        if (!e->may[i].seq) return true;
    return false;
}

static const op *save_of(uint32_t seq) {
    int i;
    for (i = num_ops - 1; i >= 0; i--)
        if (ops[i].seq == seq && strcmp(ops[i].kind, "save") == 0) return &ops[i];
    return NULL;
}

/* Every page of a snapshot is what its sequence number says; 0 when not. */
static uint32_t snapshot_seq(const hlsnap_snapshot *s, const char *layout, const char *ref) {
    uint32_t chain[MAX_DEPTH + 2], depth = 0, page, seq, i;
    uint64_t data[P / 8], should[P / 8];
    if (hlsnap__oci_read_pages(s, MARK_PAGE, 1, (uint8_t *)data, &err)) fatal("read", err.msg);
    seq = data[0] == MAGIC ? (uint32_t)data[1] : 0;
    for (i = seq; !depth || i; depth++) {
        const op *o = save_of(i);
        if (!o || depth == HLSNAP_COUNT(chain)) {
            bad(&bad_torn, "%s %s: nobody saved what it holds", layout, ref);
            return 0;
        }
        chain[depth] = i;
        i = o->base;
    }
    for (page = 0; page < s->guest->layout.pages; page++) {
        if (hlsnap__oci_read_pages(s, page, 1, (uint8_t *)data, &err)) fatal("read", err.msg);
        for (i = 0; i + 1 < depth && !delta_writes(chain[i], page); i++) {}
        memset(should, 0, sizeof(should));
        if (page_stored(page)) page_make(chain[i], page, should);
        if (memcmp(data, should, sizeof(data)) == 0) continue;
        bad(&bad_torn, "%s %s: page %u is not what save %u wrote", layout, ref, page, seq);
        return 0;
    }
    return seq;
}

/* Loads one and looks at all of it; the sequence number, 0 when it is not sound. */
static uint32_t ref_check(const char *path, const char *layout, const char *ref) {
    hlsnap_snapshot *s;
    uint32_t seq;
    loads++;
    if (hlsnap_oci_load(path, ref, NULL, &s, NULL, &err)) {
        bad(&bad_torn, "%s %s does not load: %s", layout, ref, err.msg);
        return 0;
    }
    seq = snapshot_seq(s, layout, ref);
    hlsnap_snapshot_release(s);
    return seq;
}

typedef struct listed { int num; struct { char tag[32]; char digest[72]; } e[1000]; } listed;

static bool list_one(const char *tag, const hlsnap_oci_digest *digest, uint64_t bytes, void *user) {
    listed *l = (listed *)user;
    (void)bytes; /* 0 for one that does not load, which is seen there */
    if (l->num == (int)HLSNAP_COUNT(l->e)) fatal("list", "too long");
    format(l->e[l->num].tag, sizeof(l->e[0].tag), "%.31s", tag);
    memcpy(l->e[l->num++].digest, digest->text, sizeof(l->e[0].digest));
    return true;
}

static void tag_check(const char *path, const char *layout, const char *tag, const char *digest) {
    expect *e = expect_of(layout, tag);
    const uint32_t seq = ref_check(path, layout, tag);
    int i;
    if (!e) {
        bad(&bad_torn, "%s %s: nobody made this tag", layout, tag);
        return;
    }
    e->seen = true;
    for (i = 0; seq && i < e->num; i++) {
        if (e->may[i].seq == seq && (!e->may[i].digest[0] || strcmp(e->may[i].digest, digest) == 0)) return;
    }
    if (seq) bad(&bad_lost, "%s %s is %u, %s, not %u, %s", layout, tag, seq, digest, e->may[0].seq, e->may[0].digest);
}

/* What stands among the blobs is named by what it holds, even when nothing leads to it. */
static void blobs_check(const char *path, const char *layout) {
    static uint8_t data[4 << 20];
    char name[400];
    struct dirent *d;
    DIR *dir;
    format(name, sizeof(name), "%s/blobs/sha256", path);
    dir = opendir(name);
    while (dir && (d = readdir(dir)) != NULL) {
        uint8_t sum[32];
        char hex[65];
        ssize_t n;
        int k, fd;
        if (d->d_name[0] == '.' && (!d->d_name[1] || (d->d_name[1] == '.' && !d->d_name[2]))) continue;
        format(name, sizeof(name), "%s/blobs/sha256/%.80s", path, d->d_name);
        fd = open(name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
        n = fd < 0 ? -1 : read(fd, data, sizeof(data));
        if (fd >= 0) close(fd);
        if (n < 0 || n == (ssize_t)sizeof(data)) {
            bad(&bad_torn, "%s: blob %.80s cannot be read (errno %d)", layout, d->d_name, errno);
            continue;
        }
        SHA256(data, (size_t)n, sum);
        for (k = 0; k < 32; k++) sprintf(hex + 2 * k, "%02x", sum[k]);
        if (strcmp(hex, d->d_name) != 0) bad(&bad_torn, "%s: blob %.80s of %zd bytes holds %s", layout, d->d_name, n, hex);
    }
    if (dir) closedir(dir);
}

/* Names at the root are the format's, or what a save that was cut short may leave; after a repair, only the former. */
static void root_check(const char *path, const char *layout, bool repaired) {
    struct dirent *d;
    DIR *dir = opendir(path);
    while (dir && (d = readdir(dir)) != NULL) {
        static const char *const names[] = {".", "..", "oci-layout", "index.json", "blobs", ".hlsnap.lock"};
        size_t i;
        for (i = 0; i < HLSNAP_COUNT(names) && strcmp(names[i], d->d_name) != 0; i++) {}
        if (i == HLSNAP_COUNT(names) && (repaired || strncmp(d->d_name, ".hlsnap-", 8) != 0))
            bad(&bad_torn, "%s: %.80s%s", layout, d->d_name, repaired ? " after a repair" : "");
    }
    if (dir) closedir(dir);
}

static bool there(const char *path, const char *name) {
    char full[400];
    struct stat st;
    format(full, sizeof(full), "%s/%s", path, name);
    return lstat(full, &st) == 0;
}

/* What was found goes on to work. */
static void goes_on(const char *path, const char *layout, const listed *l, bool young) {
    hlsnap_snapshot *s = snapshot_make(1, NULL), *again = NULL;
    int i;
    if (!young && hlsnap_oci_fsck(path, true, &err)) bad(&bad_torn, "%s: fsck with repair: %s", layout, err.msg);
    if (!young) root_check(path, layout, true);
    if (!young && hlsnap_oci_gc(path, 0, NULL, &err)) bad(&bad_torn, "%s: gc: %s", layout, err.msg);
    if (hlsnap_oci_save(path, "after", s, NULL, NULL, &err)) bad(&bad_torn, "%s: save: %s", layout, err.msg);
    else if (hlsnap_oci_load(path, "after", NULL, &again, NULL, &err)) bad(&bad_torn, "%s: load after save: %s", layout, err.msg);
    hlsnap_snapshot_release(again);
    hlsnap_snapshot_release(s);
    for (i = 0; i < l->num; i++) {
        if (!l->e[i].tag[0]) continue;
        if (hlsnap_oci_load(path, l->e[i].tag, NULL, &s, NULL, &err))
            bad(&bad_torn, "%s %s does not load after gc and save: %s", layout, l->e[i].tag, err.msg);
        else hlsnap_snapshot_release(s);
    }
    if (hlsnap_oci_fsck(path, false, &err)) bad(&bad_torn, "%s: fsck at the end: %s", layout, err.msg);
}

static void layout_check(const char *dir, const char *layout) {
    static listed l;
    const int torn = bad_torn;
    bool must = false;
    char path[300];
    int i;
    l.num = 0;
    format(path, sizeof(path), "%s/%s", dir, layout);
    for (i = 0; i < num_expects; i++) must |= strcmp(expects[i].layout, layout) == 0 && !may_be_absent(&expects[i]);
    layouts_seen++;
    if (there(path, "index.json")) {
        root_check(path, layout, false);
        blobs_check(path, layout);
        if (hlsnap_oci_fsck(path, false, &err)) bad(&bad_torn, "%s: fsck: %s", layout, err.msg);
        if (hlsnap_oci_list(path, list_one, &l, &err)) bad(&bad_torn, "%s: list: %s", layout, err.msg);
        for (i = 0; i < l.num; i++) {
            if (l.e[i].tag[0]) tag_check(path, layout, l.e[i].tag, l.e[i].digest);
            else ref_check(path, layout, l.e[i].digest);
        }
    }
    for (i = 0; i < num_expects; i++)
        if (strcmp(expects[i].layout, layout) == 0 && !expects[i].seen && !may_be_absent(&expects[i]))
            bad(&bad_lost, "%s %s, %u, %s", layout, expects[i].tag, expects[i].may[0].seq, expects[i].may[0].digest);
    if (bad_torn == torn && (l.num || !must)) goes_on(path, layout, &l, !there(path, "index.json"));
}

static int run_check(const char *dir, const char *journal, const char *before, const char *after) {
    int i, k;
    journal_read(journal, atoll(before), atoll(after));
    expects_make();
    for (i = 0; i < num_expects; i++) {
        for (k = 0; k < i && strcmp(expects[k].layout, expects[i].layout) != 0; k++) {}
        if (k == i) layout_check(dir, expects[i].layout);
    }
    printf("lost %d torn %d: %d layouts, %d loads\n", bad_lost, bad_torn, layouts_seen, loads);
    return bad_lost || bad_torn;
}

int main(int argc, char **argv) {
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (argc == 6 && strcmp(argv[1], "save") == 0) run_save(argv[2], argv[3], argv[4], argv[5]);
    if (argc == 6 && strcmp(argv[1], "clone") == 0) return run_clone(argv[2], argv[3], argv[4], argv[5]);
    if (argc == 6 && strcmp(argv[1], "check") == 0) return run_check(argv[2], argv[3], argv[4], argv[5]);
    fprintf(stderr, "usage: the top of powerloss.c\n");
    return 2;
}

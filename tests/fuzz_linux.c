/* fuzz_linux.c - libFuzzer target `linux`: the Linux personality (hlsnap.h, >>linux) on a fake heap. An input is a heap's size, an
   archive of files, and system calls, which several threads of the program take turns to make, with restores in between. Along the way
   all that the personality knows must add up: every page of the heap has one owner, every reference one holder.
   cc: clang -std=gnu11 -g -O1 -fsanitize=fuzzer,address,undefined -I.. fuzz_linux.c -o fuzz_linux
   run: ./fuzz_linux --seeds DIR      writes seeds
        ./fuzz_linux DIR */
#define _GNU_SOURCE
#include "linux_host.h"
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#define QUIET __attribute__((no_sanitize("coverage", "address", "undefined"))) /* what is looked for is not in there */

static const char *doing = ""; /* what is in progress, for the report */
static QUIET void bad(const char *what, long long v) {
    fprintf(stderr, "fuzz: %s: %s (%lld)\n", doing, what, v);
    abort();
}
#define MUST(c) ((c) ? (void)0 : bad(#c, 0))
#define MUST_EQ(a, b) ((a) == (b) ? (void)0 : bad(#a " == " #b, (long long)(a)))

/* ---- the input ---- */

static const uint8_t *in, *in_end;
static QUIET uint8_t byte(void) { return in < in_end ? *in++ : 0; }
static QUIET uint16_t word(void) {
    const unsigned lo = byte();
    return (uint16_t)(lo | (unsigned)byte() << 8);
}
static QUIET uint64_t number(void) { /* of all sizes, those at the limits more often */
    static const uint64_t often[] = {0, 1, 2, 3, 4, 7, 8, 9, 15, 16, 31, 63, 64, 100, 255, 256, 511, 512, 1000, 1023, 1024, 1025, 4095, 4096, 4097,
                                     8191, 8192, 65535, 65536, 131072, 1000000, 999999999, 1000000000, 0x7fffffff, 0x80000000u, 0xffffffffu,
                                     0x7ffff000, 1ull << 32, 1ull << 40, 1ull << 62, INT64_MAX - 1, INT64_MAX, 1ull << 63, UINT64_MAX - 4095,
                                     UINT64_MAX - 1, UINT64_MAX};
    const uint8_t b = byte();
    if (b < 128) return often[b % HLSNAP_COUNT(often)];
    return b < 200 ? byte() : b < 250 ? word() : (uint64_t)word() << (byte() % 60);
}

/* ---- what the program has in its memory ---- */

static void *gifts[4096]; /* what calls were given: it ends with the program, which may be in the middle of them */
static size_t num_gifts;
static QUIET void *gift(size_t n) { /* exactly so much, so that AddressSanitizer sees what goes beyond */
    void *p = malloc(n ? n : 1);
    if (num_gifts == HLSNAP_COUNT(gifts)) bad("too many gifts", 0);
    memset(p, 0xa5, n);
    return gifts[num_gifts++] = p;
}
static QUIET void gifts_free(void) {
    while (num_gifts) free(gifts[--num_gifts]);
}

static uint32_t futexes[8 + 1]; /* where one may be that is not aligned, too */
static int restarts;

/* ---- pages ---- */

enum { NOBODYS, OURS };
#define MAX_PAGES 1024
static uint8_t shadow[MAX_PAGES]; /* which pages are the program's mappings */
static uint64_t stamp[MAX_PAGES]; /* what begins such a page; 0 = it is zero; 1 = nobody knows */
static bool wiped[MAX_PAGES];     /* at the next restore */
static uint8_t owner[MAX_PAGES];
static uint64_t stamps;

static QUIET uint64_t page_at(uint64_t i) { return hlsnap__lx_mem.base + i * 4096; }
static QUIET void page_stamp(uint64_t i) {
    stamp[i] = 2 + stamps++;
    memcpy((void *)(uintptr_t)page_at(i), &stamp[i], 8);
}
static QUIET void page_check(uint64_t i) {
    uint64_t v;
    if (shadow[i] != OURS || stamp[i] == 1) return;
    memcpy(&v, (void *)(uintptr_t)page_at(i), 8);
    if (v != stamp[i]) bad("a page of the program changed", (long long)i);
}
/* The program owns pages from now on: as zero as they should be. */
static QUIET void pages_mapped(uint64_t at, uint64_t n, bool zero, bool write) {
    uint64_t i;
    for (i = at; i < at + n; i++) {
        MUST(i < hlsnap__lx_mem.pages && shadow[i] == NOBODYS);
        MUST(hlsnap__lx_bit(hlsnap__lx_mem.used, i));
        shadow[i] = OURS;
        stamp[i] = zero ? 0 : 1;
        wiped[i] = false;
        if (zero)
            for (uint64_t k = 0; k < 4096; k += 8)
                if (hlsnap__lx_get64(page_at(i) + k)) bad("a new page is not zero", (long long)i);
        if (write) page_stamp(i);
    }
}
static QUIET void pages_unmapped(uint64_t from, uint64_t to) { /* addresses; what is not the heap's is left out */
    const uint64_t base = hlsnap__lx_mem.base, end = base + hlsnap__lx_mem.pages * 4096;
    for (from = from > base ? from : base; from < to && from < end; from += 4096) shadow[(from - base) / 4096] = NOBODYS;
}

/* ---- what must add up ---- */

static QUIET void own(const void *p, uint64_t bytes, const char *what) {
    const uint64_t at = S(p) - hlsnap__lx_mem.base, n = (bytes + 4095) / 4096;
    uint64_t i;
    doing = what;
    MUST(at % 4096 == 0 && at / 4096 + n <= hlsnap__lx_mem.pages);
    for (i = at / 4096; i < at / 4096 + n; i++) {
        if (!hlsnap__lx_bit(hlsnap__lx_mem.used, i)) bad("a page in use is free", (long long)i);
        if (owner[i]++) bad("a page has two owners", (long long)i);
    }
}
static uint64_t small[8]; /* blocks of the small allocator */
static QUIET void own_small(const void *p, uint64_t bytes, const char *what) {
    if (bytes > 4096) own(p, bytes, what);
    else small[hlsnap__lx_class(bytes)]++;
}

static uint32_t refs[65536], pins[65536], holds[HLSNAP__LX_FDS];
static bool waits; /* a thread is in a call, and may hold what it uses */

static QUIET void check_fds(void) {
    const struct hlsnap__lx_fds *f = &hlsnap__lx_fds;
    uint32_t i;
    doing = "descriptors";
    memset(holds, 0, sizeof(holds));
    for (i = 0; i < HLSNAP__LX_FDS; i++)
        if (hlsnap__lx_bit(f->used, i)) holds[f->to[i]]++;
    for (i = 0; i < HLSNAP__LX_FDS; i++) {
        const hlsnap__lx_open *o = &f->open[i];
        MUST_EQ(hlsnap__lx_bit(f->opened, i), o->kind != HLSNAP__LX_FREE);
        if (waits ? o->refs < holds[i] : o->refs != holds[i]) bad("a description's references", i);
        if (!o->refs) MUST(!hlsnap__lx_bit(f->opened, i));
        else if (o->kind == HLSNAP__LX_FILE || o->kind == HLSNAP__LX_DIR) refs[o->object]++;
    }
}

static QUIET void check_folder(uint32_t dir, uint32_t *listed) {
    const hlsnap__lx_node *d = hlsnap__lx_node_at(dir);
    uint32_t i, last = 0, folders = 0;
    bool listed_in = !d->listed;
    uint64_t place = 0;
    for (i = d->first; i; i = hlsnap__lx_node_at(i)->next) {
        const hlsnap__lx_node *p = hlsnap__lx_node_at(i);
        MUST(p->parent == dir && p->prev == last && p->place > place && !(p->flags & HLSNAP__LX_N_GONE));
        MUST_EQ(hlsnap__lx_child(dir, p->name, p->name_size), i);
        folders += hlsnap__lx_is(i, HLSNAP__LX_FOLDER);
        listed_in = listed_in || i == d->listed;
        place = p->place;
        last = i;
        ++*listed;
    }
    MUST_EQ(d->last, last);
    MUST_EQ(d->links, folders);
    MUST(listed_in); /* where a listing goes on is one of its entries */
}

static QUIET void check_nodes(void) {
    const struct hlsnap__lx_tree *t = &hlsnap__lx_tree;
    uint32_t i, listed = 0, log;
    doing = "nodes";
    MUST(t->num < HLSNAP_COUNT(refs));
    refs[t->cwd]++;
    for (i = 0; i < HLSNAP__LX_SHARES; i++)
        if (hlsnap__lx_mem.shares[i].from != hlsnap__lx_mem.shares[i].to) {
            pins[hlsnap__lx_mem.shares[i].node]++;
            refs[hlsnap__lx_mem.shares[i].node]++;
        }
    for (i = 1; i <= t->num; i++) {
        const hlsnap__lx_node *p = hlsnap__lx_node_at(i);
        if (!(p->flags & HLSNAP__LX_N_GONE)) continue;
        if (p->flags & HLSNAP__LX_N_ARCHIVE) refs[i]++; /* replaced by a later member: stays for what is linked to it */
        else if (hlsnap__lx_is(i, HLSNAP__LX_FOLDER)) refs[p->parent]++;
    }
    for (i = 1; i <= t->num; i++) {
        const hlsnap__lx_node *p = hlsnap__lx_node_at(i);
        if (p->refs != refs[i]) bad("a node's references", i);
        if (p->pins != pins[i]) bad("a node's pins", i);
        MUST(p->size <= p->room || !p->room || p->mode == 0);
        if (p->room) own_small(p->data, p->room, "a file");
        if (p->mode && !(p->flags & (HLSNAP__LX_N_ARCHIVE | HLSNAP__LX_N_SYSTEM))) own_small(p->name, p->name_size, "a name");
        doing = "directories";
        if (hlsnap__lx_is(i, HLSNAP__LX_FOLDER)) check_folder(i, &listed);
    }
    MUST_EQ(t->num_hashed, listed);
    for (log = 6; log < 31; log++)
        if (t->chunk[log - 5]) own(t->chunk[log - 5], (1ull << log) * sizeof(hlsnap__lx_node), "nodes");
    if (t->bucket != t->few) own(t->bucket, ((uint64_t)t->mask + 1) * 4, "buckets");
}

static QUIET bool is_open(uint32_t kind, uint32_t object) {
    uint32_t i;
    for (i = 0; i < HLSNAP__LX_FDS; i++)
        if (hlsnap__lx_fds.open[i].kind == kind && hlsnap__lx_fds.open[i].object == object) return true;
    return false;
}

static QUIET void check_streams(void) {
    uint32_t i, k;
    for (i = 0; i < HLSNAP__LX_PIPES; i++) {
        const hlsnap__lx_pipe_state *p = &hlsnap__lx_streams.pipes[i];
        if (!p->readers && !p->writers && !p->pages[0]) continue;
        doing = "pipes";
        MUST_EQ(p->readers, is_open(HLSNAP__LX_PIPE_READ, i));
        MUST_EQ(p->writers, is_open(HLSNAP__LX_PIPE_WRITE, i));
        MUST(p->size <= 65536);
        for (k = 0; k < HLSNAP__LX_PIPE_PAGES; k++)
            if (p->pages[k]) own(p->pages[k], 4096, "a pipe");
    }
    doing = "events and epolls";
    for (i = 0; i < HLSNAP__LX_EVENTS; i++)
        if (hlsnap__lx_streams.events[i].used) MUST(is_open(HLSNAP__LX_EVENT, i));
    for (i = 0; i < HLSNAP__LX_EPOLLS; i++) {
        const hlsnap__lx_epoll *e = &hlsnap__lx_polling.epolls[i];
        const hlsnap__lx_watch *w;
        uint32_t num = 0;
        if (!e->by_fd) continue;
        MUST(is_open(HLSNAP__LX_EPOLL, i));
        own(e->by_fd, 8192, "an epoll");
        for (k = 0; k < HLSNAP__LX_FDS; k++)
            for (w = e->by_fd[k]; w; w = w->same_fd) {
                MUST(w->epoll == e && w->fd == (int32_t)k && w->open->kind != HLSNAP__LX_FREE);
                own_small(w, sizeof(*w), "a watch");
                if (w->open->kind != HLSNAP__LX_INPUT && !(w->events & HLSNAP__LX_EPOLL_EDGE) && !w->queued) MUST(!hlsnap__lx_watch_ready(w));
                num++;
            }
        MUST_EQ(num, e->num);
    }
}

/* What threads that wait are to be woken by: a thing that is still there. */
static QUIET bool is_channel(uint64_t c) {
    uint32_t i;
    if (c == HLSNAP__LX_SLEEP || c == S(&hlsnap__lx_polling.channel) || c == S(&hlsnap__lx_fds)) return true; /* the last: standard input */
    if (c >= S(futexes) && c < S(futexes + 8)) return c % 4 == 0;
    for (i = 0; i < HLSNAP__LX_PIPES; i++)
        if ((c & ~1ull) == S(&hlsnap__lx_streams.pipes[i].in)) return hlsnap__lx_streams.pipes[i].readers || hlsnap__lx_streams.pipes[i].writers;
    for (i = 0; i < HLSNAP__LX_EVENTS; i++)
        if ((c & ~1ull) == S(&hlsnap__lx_streams.events[i].watches)) return hlsnap__lx_streams.events[i].used;
    for (i = 0; i < HLSNAP__LX_EPOLLS; i++)
        if (c == S(&hlsnap__lx_polling.epolls[i])) return hlsnap__lx_polling.epolls[i].by_fd;
    return false;
}
static QUIET void check_threads(void) {
    uint32_t i, living = 0, waiting = 0;
    doing = "threads";
    for (i = 0; i < HLSNAP__LX_THREADS; i++) {
        const hlsnap__lx_thread *t = &hlsnap__lx_tasks.of[i];
        MUST(t->state == HLSNAP__LX_UNUSED || i < hlsnap__lx_tasks.slots);
        living += t->state != HLSNAP__LX_UNUSED;
        waiting += t->state == HLSNAP__LX_WAITS;
        if (t->state == HLSNAP__LX_RUNS) MUST(!t->channel && t->bits == ~0u);
        if (t->state == HLSNAP__LX_WAITS && !is_channel(t->channel)) bad("nobody will wake a thread", i);
    }
    MUST_EQ(hlsnap__lx_tasks.living, living);
    MUST_EQ(hlsnap__lx_tasks.waiting, waiting);
}

/* The program ended because every thread waits: for nothing that is there already. */
static QUIET void check_deadlock(void) {
    uint32_t i, k;
    doing = "a deadlock";
    for (i = 0; i < hlsnap__lx_tasks.slots; i++) {
        const hlsnap__lx_thread *t = &hlsnap__lx_tasks.of[i];
        if (t->state == HLSNAP__LX_UNUSED) continue;
        MUST(t->state == HLSNAP__LX_WAITS && t->until == HLSNAP__LX_NEVER && !t->input);
        for (k = 0; k < HLSNAP__LX_PIPES; k++) {
            const hlsnap__lx_pipe_state *p = &hlsnap__lx_streams.pipes[k];
            if (t->channel == hlsnap__lx_in_channel(&p->in)) MUST(!p->size && p->writers);
            if (t->channel == hlsnap__lx_out_channel(&p->in)) MUST(!hlsnap__lx_pipe_writable(p) && p->readers);
        }
        for (k = 0; k < HLSNAP__LX_EVENTS; k++) {
            const hlsnap__lx_event *e = &hlsnap__lx_streams.events[k];
            if (t->channel == hlsnap__lx_in_channel(&e->watches)) MUST(!e->count);
            if (t->channel == hlsnap__lx_out_channel(&e->watches)) MUST(e->count);
        }
        for (k = 0; k < HLSNAP__LX_EPOLLS; k++)
            if (t->channel == S(&hlsnap__lx_polling.epolls[k])) MUST(!hlsnap__lx_epoll_ready(k));
    }
}

static QUIET void check_pages(void) {
    const struct hlsnap__lx_memory *m = &hlsnap__lx_mem;
    uint64_t i, used = 0, owned = 0, block;
    doing = "pages";
    for (i = 0; i < m->pages; i++) {
        used += hlsnap__lx_bit(m->used, i);
        if (!hlsnap__lx_bit(m->used, i) && i >= m->top) bad("a free page is above the top", (long long)i);
        if (shadow[i] == OURS && owner[i]++) bad("a page of the program has another owner", (long long)i);
        if (shadow[i] == OURS && !hlsnap__lx_bit(m->used, i)) bad("a page of the program is free", (long long)i);
        owned += owner[i];
        page_check(i);
    }
    MUST_EQ(hlsnap__lx.num_used, used);
    MUST(hlsnap__lx.peak >= used);
    for (i = 0; i < 8; i++) {
        for (block = m->small[i]; block; block = hlsnap__lx_get64(block)) small[i]++;
        if (small[i] % (128u >> i)) bad("blocks of the small allocator", (long long)i);
        owned += small[i] / (128u >> i);
    }
    MUST_EQ(owned, used);
}

static QUIET void check_all(void) {
    const struct hlsnap__lx_memory *m = &hlsnap__lx_mem;
    const char *was = doing;
    uint32_t i;
    memset(owner, 0, sizeof(owner));
    memset(small, 0, sizeof(small));
    memset(refs, 0, (hlsnap__lx_tree.num + 1u) * sizeof(refs[0]));
    memset(pins, 0, (hlsnap__lx_tree.num + 1u) * sizeof(pins[0]));
    waits = hlsnap__lx_tasks.living > 1;
    own((void *)(uintptr_t)m->base, m->brk_start - m->base, "the bitmaps");
    for (i = 0; i < hlsnap__lx_tasks.slots; i++) {
        const hlsnap__lx_thread *t = &hlsnap__lx_tasks.of[i];
        if (t->vectors) own((void *)(uintptr_t)t->vectors, i ? HLSNAP__LX_VECTORS + HLSNAP__LX_STACK : HLSNAP__LX_VECTORS, "a stack");
    }
    check_threads();
    check_fds();
    check_nodes();
    check_streams();
    check_pages();
    if (test_bad) bad("what the host checks", test_bad);
    doing = was;
}

/* ---- calls about memory ---- */

static struct { uint64_t at, bytes; } places[16]; /* mappings that were made last; any call may name others, too */
static unsigned num_places;

static QUIET uint64_t an_address(void) {
    const uint8_t b = byte();
    if (b < 160) return places[b % 16].at + (b & 16 ? 4096ull * (b >> 5) : 0);
    if (b < 240) return page_at(word() % (hlsnap__lx_mem.pages + 2));
    return b < 250 ? page_at(byte()) + byte() : number();
}
static QUIET uint64_t a_length(void) {
    const uint8_t b = byte();
    if (b < 64) return places[b % 16].bytes;
    return b < 200 ? 4096ull * (b % 24) + (b & 1) : b < 240 ? 4096ull * byte() : number();
}
static QUIET int32_t a_fd(void) {
    const uint8_t b = byte();
    return b < 240 ? b % 24 : b < 250 ? (int32_t)(b * 5) : b == 250 ? -100 : b == 251 ? -1 : b == 252 ? 1023 : b == 253 ? 1024 : INT32_MAX;
}

static QUIET void place_add(uint64_t at, uint64_t bytes) {
    places[num_places % 16].at = at;
    places[num_places++ % 16].bytes = bytes;
}
static QUIET uint64_t pages_of(uint64_t bytes) { return bytes / 4096 + (bytes % 4096 != 0); }
static QUIET uint64_t page_no(uint64_t at) { return (at - hlsnap__lx_mem.base) / 4096; }

static QUIET int64_t do_mmap(void) {
    static const uint32_t flags[] = {0x22, 0x22, 0x22, 0x32, 0x100022, 0x21, 2, 1, 0x12, 0x11, 0x4022, 0x20, 0x100012};
    const uint64_t hint = byte() & 1 ? an_address() : 0, bytes = a_length(), offset = byte() & 1 ? number() & ~4095ull : 0;
    const uint8_t prot = byte() & 63, b = byte();
    const uint32_t f = flags[b % HLSNAP_COUNT(flags)];
    const int32_t fd = a_fd();
    const bool fixed = f & 0x100010;
    int64_t r;
    uint64_t i, at;
    doing = "mmap";
    if (f & 0x10 && hint % 4096 == 0) /* what is there goes, even when nothing comes; a shared mapping of a file does not end */
        for (i = 0; i < pages_of(bytes) && pages_of(bytes) <= MAX_PAGES; i++) stamp[page_no(hint + i * 4096) % MAX_PAGES] = 1;
    r = sys(SYS_mmap, hint, bytes, prot == 63 ? 7 : prot == 62 ? 0 : prot == 61 ? 1 : 3, f, fd, offset);
    if (r < 0) {
        if (f & 0x10 && r == -12) /* in Linux, too, what was there may be gone */
            for (i = 0; i < pages_of(bytes) && pages_of(bytes) <= MAX_PAGES; i++) {
                at = page_no(hint + i * 4096);
                if (at < hlsnap__lx_mem.pages && shadow[at] && !hlsnap__lx_bit(hlsnap__lx_mem.used, at)) shadow[at] = NOBODYS;
            }
        return r;
    }
    at = (uint64_t)r;
    if (fixed) MUST_EQ(at, hint);
    place_add(at, bytes);
    for (i = 0; i < HLSNAP__LX_SHARES; i++)
        if (hlsnap__lx_mem.shares[i].from == at && hlsnap__lx_mem.shares[i].to == at + pages_of(bytes) * 4096) return r;
    if (fixed) pages_unmapped(at, at + pages_of(bytes) * 4096);
    pages_mapped(page_no(at), pages_of(bytes), f & 0x20, prot < 61 && f & 0x20);
    return r;
}

static QUIET int64_t do_munmap(void) {
    const uint64_t at = an_address(), bytes = a_length(), last = bytes > UINT64_MAX - at ? UINT64_MAX : at + bytes;
    int64_t r;
    doing = "munmap";
    r = sys(SYS_munmap, at, bytes);
    if (!r) pages_unmapped(at, last);
    return r;
}

/* Of what is mapped: of all else a kernel says EFAULT, which is not asked for here. */
static QUIET int64_t do_mremap(void) {
    const unsigned i = byte() % 16;
    const uint64_t at = places[i].at, old = byte() & 3 ? places[i].bytes : a_length(), bytes = a_length(), flags = byte() & 7;
    const uint64_t have = pages_of(old), want = pages_of(bytes);
    uint64_t k, to;
    int64_t r;
    bool moved;
    if (!at || !have || have > MAX_PAGES) return 0;
    for (k = 0; k < have; k++)
        if (page_no(at) + k >= hlsnap__lx_mem.pages || shadow[page_no(at) + k] != OURS) return 0;
    doing = "mremap";
    r = sys(SYS_mremap, at, old, bytes, flags == 7 ? 2 : flags & 1);
    if (r < 0) return r;
    to = (uint64_t)r;
    moved = wiped[page_no(at)];
    if (to == at) {
        if (want > have) pages_mapped(page_no(at) + have, want - have, true, true);
        else pages_unmapped(at + want * 4096, at + have * 4096);
    } else {
        uint64_t v;
        pages_unmapped(at, at + have * 4096);
        for (k = 0; k < have; k++) {
            v = hlsnap__lx_get64(page_at(page_no(to) + k));
            if (stamp[page_no(at) + k] != 1 && v != stamp[page_no(at) + k]) bad("mremap does not move what is there", (long long)k);
        }
        pages_mapped(page_no(to), have, false, false);
        pages_mapped(page_no(to) + have, want - have, true, true);
    }
    for (k = 0; k < want; k++) wiped[page_no(to) + k] = moved;
    place_add(to, bytes);
    return r;
}

static QUIET int64_t do_brk(void) {
    const uint64_t was = hlsnap__lx_mem.brk, base = hlsnap__lx_mem.base;
    const uint8_t b = byte();
    const uint64_t to = b < 100 ? was + number() % 40000 : b < 200 ? was - number() % 40000 : b < 250 ? hlsnap__lx_mem.brk_start + word() : number();
    int64_t r;
    uint64_t from, end;
    doing = "brk";
    r = sys(SYS_brk, to);
    MUST(r > 0 && ((uint64_t)r == to || (uint64_t)r == was));
    from = pages_of(was - base);
    end = pages_of((uint64_t)r - base);
    if (end > from) pages_mapped(from, end - from, true, true);
    pages_unmapped(page_at(end), page_at(from));
    return r < 0 ? r : 0;
}

static QUIET int64_t do_madvise(void) {
    static const uint8_t advices[] = {4, 4, 18, 18, 19, 8, 14, 200};
    const uint64_t at = an_address(), bytes = a_length();
    const uint8_t advice = advices[byte() % sizeof(advices)];
    uint64_t from, to;
    int64_t r;
    doing = "madvise";
    r = sys(SYS_madvise, at, bytes, advice);
    if ((r && (r != -12 || advice != 4)) || !hlsnap__lx_clip(at, bytes, &from, &to)) return r; /* what is there is done all the same */
    for (; from < to; from += 4096) {
        const uint64_t i = page_no(from);
        if (shadow[i] != OURS || (advice == 4 && hlsnap__lx_bit(hlsnap__lx_mem.copies, i))) continue;
        if (advice == 4) stamp[i] = hlsnap__lx_get64(from) == stamp[i] && stamp[i] ? bad("DONTNEED leaves a page as it is", (long long)i), 1 : 0;
        if (advice == 4 && hlsnap__lx_get64(from)) bad("DONTNEED leaves something", (long long)i);
        if (advice == 18 || advice == 19) wiped[i] = advice == 18;
    }
    return r;
}

static QUIET int64_t do_mprotect(void) {
    const uint64_t at = an_address(), bytes = a_length(), prot = byte() % 8;
    int64_t r;
    uint64_t from, to;
    doing = "mprotect";
    r = sys(SYS_mprotect, at, bytes, prot);
    if (!r && prot & 2 && hlsnap__lx_clip(at, bytes, &from, &to)) /* what can be written is */
        for (; from < to; from += 4096)
            if (shadow[page_no(from)] == OURS && stamp[page_no(from)] != 1) page_stamp(page_no(from));
    return r;
}

/* ---- other calls ---- */

static const char *const names[] = {
    "/a", "a", "b", "/tmp/a", "/tmp/b", "/tmp/d", "/tmp/d/x", "/tmp/d/y", "/tmp/d/e", "/tmp/d/e/z", "d", "d/x", "d/e", "..", ".", "", "/",
    "/dev/null", "/dev/zero", "/dev/full", "/dev/urandom", "/dev/stdin", "/dev/stdout", "/dev/tty", "/dev/fd/3", "/proc/self/exe", "/proc/self/fd",
    "/proc/self/fd/5", "/proc/self", "/f", "/dir/f", "/dir", "/link", "/dir/up", "/hard", "/loop", "link/f", "/dir/../f", "/tmp/d/../b", "/tmp/d/",
    "//tmp//a", "/tmp/a/", "/tmp/.", "/tmp/..", "/none/x", "/dev/shm/s", "/dir/f/x", "/tmp/0123456789012345678901234567890123456789"};

static QUIET const char *a_name(void) {
    const uint8_t b = byte();
    char *p;
    size_t n;
    if (b < 240) {
        p = (char *)gift(strlen(names[b % HLSNAP_COUNT(names)]) + 1);
        return strcpy(p, names[b % HLSNAP_COUNT(names)]);
    }
    n = b < 250 ? byte() : b < 253 ? 4090 + byte() % 16 : 250 + byte() % 10;
    p = (char *)gift(n + 1);
    memset(p, b < 252 ? 'n' : '/', n);
    if (n > 5) memcpy(p, "/tmp/", 5);
    p[n] = 0;
    return p;
}

static QUIET uint64_t a_size(void) {
    const uint8_t b = byte();
    return b < 150 ? b % 70 : b < 200 ? word() % 5000 : b < 230 ? 4095 + b % 3 : b < 245 ? 65536 : 0;
}
static QUIET const void *a_timespec(void) {
    const uint8_t b = byte();
    uint64_t *p;
    if (b < 60) return NULL;
    p = (uint64_t *)gift(16);
    p[0] = b < 200 ? b % 3 : b < 230 ? 1700000000u + byte() : number();
    p[1] = b < 240 ? word() : number();
    return p;
}
static QUIET const void *a_vector(uint64_t *num) {
    struct iovec *v;
    uint64_t i;
    const uint8_t b = byte();
    *num = b < 250 ? b % 5 : 1025 + b;
    v = (struct iovec *)gift(*num * sizeof(*v));
    for (i = 0; i < *num && i < 5; i++) {
        v[i].iov_len = a_size();
        v[i].iov_base = gift(v[i].iov_len);
        if (byte() > 250) v[i].iov_len = number() | 1ull << 63; /* nothing is read then */
    }
    return v;
}
static QUIET const void *a_poll(uint64_t *num) {
    struct pollfd *p;
    uint64_t i;
    *num = byte() % 6;
    p = (struct pollfd *)gift(*num * sizeof(*p));
    for (i = 0; i < *num; i++) {
        p[i].fd = a_fd();
        p[i].events = (short)(byte() & 0x5f);
    }
    return p;
}

/* How a call's arguments are made, a letter each: f descriptor, p path, w buffer and size, v vector and count, n number, b byte, g flags, q what fcntl asks,
   t timespec, o somewhere to write 512 bytes, F futex, P pollfds and count, E epoll_event, e room for events and their count, s set,
   m small number, u futex op, U one that takes no time, W 32 bits, k less than 40, z 0, h how much time in ms, c a clock. */
static const struct call { uint16_t number; const char *args; } calls[] = {
    {0, "fw"}, {0, "fw"}, {1, "fw"}, {1, "fw"}, {2, "pgb"}, {2, "pgb"}, {2, "pgb"}, {3, "f"}, {3, "f"}, {4, "po"}, {5, "fo"}, {6, "po"}, {7, "Ph"},
    {8, "fnm"}, {13, "booB"}, {14, "booB"}, {16, "fio"}, {17, "fwn"}, {18, "fwn"}, {19, "fv"}, {20, "fv"}, {21, "pb"}, {22, "o"}, {23, "bsssT"},
    {24, ""}, {26, "nn"}, {32, "f"}, {33, "ff"}, {35, "t"}, {39, ""}, {57, ""}, {58, ""}, {59, ""}, {61, ""}, {63, "o"}, {72, "fjo"}, {72, "fqb"},
    {73, "f"}, {74, "f"}, {75, "f"}, {76, "pn"}, {77, "fn"}, {79, "w"}, {80, "p"}, {81, "f"}, {82, "pp"}, {83, "pb"}, {83, "pb"}, {84, "p"},
    {85, "pb"}, {87, "p"}, {89, "pw"}, {90, "pb"}, {91, "fb"}, {95, "b"}, {96, "oz"}, {97, "bo"}, {98, "bo"}, {99, "o"}, {100, "o"}, {102, ""},
    {104, ""}, {105, "n"}, {106, "n"}, {107, ""}, {108, ""}, {110, ""}, {111, ""}, {113, "nn"}, {114, "nn"}, {115, ""}, {116, ""}, {117, "nnn"},
    {118, "ooo"}, {119, "nnn"}, {120, "ooo"}, {121, ""}, {124, ""}, {131, "zo"}, {145, ""}, {149, ""}, {150, ""}, {151, ""}, {152, ""}, {157, "ko"},
    {158, "xo"}, {160, ""}, {186, ""}, {200, "bz"}, {201, "o"}, {202, "FumtFm"}, {202, "FUmnFm"}, {202, "FUmnFW"}, {202, "FumtFm"}, {203, ""}, {204, "bno"}, {213, "b"},
    {217, "fw"}, {217, "fw"}, {218, "F"}, {221, "f"}, {228, "co"}, {229, "co"}, {230, "cbt"}, {232, "fech"}, {233, "fmfE"}, {233, "fmfE"}, {234, "bbz"},
    {247, ""}, {257, "fpgb"}, {258, "fpb"}, {262, "fpog"}, {263, "fpd"}, {264, "fpfp"}, {267, "fpw"}, {268, "fpb"}, {269, "fpb"}, {270, "bssst"},
    {271, "Pt"}, {273, ""}, {280, "fpTd"}, {281, "feh"}, {284, "b"}, {285, "fknn"}, {290, "nE"}, {290, "bg"}, {291, "z"}, {291, "g"}, {292, "ffg"},
    {293, "og"}, {293, "oz"}, {295, "fvn"}, {296, "fvn"}, {302, "zbzo"}, {309, "oo"}, {316, "fpfpb"}, {318, "w"}, {322, ""}, {324, ""}, {325, ""},
    {327, "fvnzb"}, {328, "fvnzb"}, {332, "fpgzo"}, {334, ""}, {435, ""}, {436, "ffb"}, {436, "nnn"}, {439, "fpbd"}, {441, "fet"}};

static QUIET uint64_t some_flags(void) { /* of open and others */
    static const uint32_t flags[] = {0, 1, 2, 0x40, 0x41, 0x42, 0x242, 0xc2, 0x441, 0x800, 0x10000, 0x20000, 0x80000, 0x200000, 0x80800, 0x400000, 0x100,
                                     0x1000, 0x641, 0x42, 0x42, 2};
    const uint8_t b = byte();
    return b < 230 ? flags[b % HLSNAP_COUNT(flags)] : number();
}

static QUIET int an_argument(char how, uint64_t *a) {
    static const uint32_t ioctls[] = {0x5451, 0x5450, 0x5421, 0x541b, 0x5401, 0x5413}, dirs[] = {0, 0x100, 0x200, 0x1000, 0x1100, 0x400};
    static const uint8_t ops[] = {1, 3, 4, 5, 10, 1, 3, 129, 131, 132, 133, 138, 0, 9, 128, 137, 0, 137};
    static const uint16_t locks[] = {5, 6, 7, 9, 36, 37, 38, 4, 0, 1030, 1, 2, 3, 11};
    struct epoll_event *e;
    uint64_t n;
    switch (how) {
    case 'f': *a = (uint64_t)(int64_t)a_fd(); return 1;
    case 'p': *a = S(a_name()); return 1;
    case 'w': n = a_size(); *a = S(gift(n)); a[1] = n; return 2;
    case 'v': *a = S(a_vector(&n)); a[1] = n; return 2;
    case 'P': *a = S(a_poll(&n)); a[1] = n; return 2;
    case 'n': *a = number(); return 1;
    case 'b': *a = byte(); return 1;
    case 'B': *a = 8; return 1;
    case 'k': *a = byte() % 40; return 1;
    case 'm': n = byte(); *a = n < 240 ? n % 6 : n; return 1;
    case 'u': n = byte(); *a = n < 240 ? ops[n % HLSNAP_COUNT(ops)] | (n > 180) << 8 : n; return 1;
    case 'U': *a = ops[byte() % 12]; return 1;
    case 'W': *a = word() | (uint64_t)word() << 16; return 1;
    case 'x': *a = 0x1000 + byte() % 6; return 1;
    case 'c': n = byte(); *a = n < 200 ? n % 13 : number(); return 1;
    case 'd': *a = dirs[byte() % HLSNAP_COUNT(dirs)]; return 1;
    case 'i': *a = ioctls[byte() % HLSNAP_COUNT(ioctls)]; return 1;
    case 'j': *a = locks[byte() % HLSNAP_COUNT(locks)]; return 1;
    case 'q': *a = byte() % 7; *a = *a < 5 ? *a : 1030; return 1;
    case 'g': *a = some_flags(); return 1;
    case 't':
    case 'T': *a = S(a_timespec()); if (how == 'T' && *a) *a = S(memcpy(gift(32), (const void *)(uintptr_t)*a, 16)); return 1;
    case 'o': *a = S(memset(gift(512), byte() & 7, 32)); return 1;
    case 's': *a = byte() & 1 ? S(memset(gift(128), byte(), 2)) : 0; if (*a) memset((uint8_t *)(uintptr_t)*a + 3, 0, 125); return 1;
    case 'F': *a = S(&futexes[byte() % 8]); if (byte() > 235) ++*a; return 1;
    case 'h': n = byte(); *a = n < 40 ? UINT64_MAX : n < 80 ? 0 : n; return 1;
    case 'E':
        e = (struct epoll_event *)gift(sizeof(*e));
        e->events = byte() | (byte() & 15u) << 28;
        *a = S(e);
        return 1;
    case 'e': n = byte() % 6; *a = S(gift(n * sizeof(*e))); a[1] = n; return 2;
    default: *a = 0; return 1;
    }
}

/* Whether a wait must come back at once: the futex is not what it is said to be. */
static QUIET bool futex_refused(uint64_t at, uint64_t op, uint64_t value) {
    uint32_t is;
    const uint32_t what = (uint32_t)op & ~384u;
    memcpy(&is, (const void *)(uintptr_t)at, 4);
    return (what == 0 || what == 9) && is != (uint32_t)value;
}

static QUIET int64_t do_call(void) {
    const struct call *c = &calls[word() % HLSNAP_COUNT(calls)];
    static char text[32];
    const char *p;
    uint64_t a[8] = {0};
    int n = 0;
    int64_t r;
    bool refused;
    for (p = c->args; *p; p++) n += an_argument(*p, &a[n]);
    if (c->number == 14) a[0] %= 4;
    if (c->number == 231 || c->number == 60) return 0;
    if (c->number == 14 && byte() > 4) a[3] = 8;
    snprintf(text, sizeof(text), "call %u", c->number);
    doing = text;
    refused = c->number == 202 && futex_refused(a[0], a[1], a[2]);
    r = sys(c->number, a[0], a[1], a[2], a[3], a[4], a[5]);
    snprintf(text, sizeof(text), "call %u", c->number);
    doing = text;
    if (refused && r >= 0) bad("a futex with another value is waited for", r);
    return c->number == 8 || c->number == 72 ? (r < 0 ? r : 0) : r;
}

static QUIET void check_time(void) {
    static uint64_t last[2];
    static int of;
    uint64_t now[2], t[2];
    int i;
    if (of != restarts) of = restarts;
    for (i = 0; i < 2; i++) {
        MUST_EQ(sys(SYS_clock_gettime, i, t), 0);
        MUST(t[1] < 1000000000);
        now[i] = t[0] * 1000000000 + t[1];
    }
    if (restarts < 0) memset(last, 0, sizeof(last)); /* a new program */
    restarts = restarts < 0 ? 0 : restarts;
    for (i = 0; i < 2; i++) {
        if (now[i] <= last[i]) bad("a clock goes back", i);
        last[i] = now[i];
    }
}

static QUIET void do_restart(void) {
    hlsnap_abi_mailbox *m = (hlsnap_abi_mailbox *)(void *)lx.mailbox;
    const uint8_t b = byte();
    uint64_t i;
    doing = "a restore";
    if (b & 3) m->realtime_ns += number() - number() % (1ull << 50);
    if (b > 250) m->realtime_ns = 0;
    m->realtime_ns %= 1ull << 62;
    if (b & 4) lx_tsc = number() % (1ull << 50);
    hlsnap__lx.entry_tsc = lx_tsc;
    if (b & 8) {
        hlsnap__lx_arrive(); /* the next call only */
        return;
    }
    lx_restart();
    for (i = 0; i < hlsnap__lx_mem.pages; i++)
        if (wiped[i] && shadow[i] == OURS) {
            if (hlsnap__lx_get64(page_at(i))) bad("a page is not wiped", (long long)i);
            stamp[i] = 0;
        }
}

static QUIET void do_trim(void) {
    uint64_t i, k;
    doing = "trim";
    hlsnap__lx_trim();
    for (i = 0; i < hlsnap__lx_mem.pages; i++)
        for (k = 0; !hlsnap__lx_bit(hlsnap__lx_mem.used, i) && k < 4096; k += 512)
            if (hlsnap__lx_get64(page_at(i) + k)) bad("a free page is not zero", (long long)i);
}

static void thread(void *arg);
static QUIET int64_t do_clone(void) {
    const uint8_t b = byte();
    int i, used = 0;
    for (i = 0; i < LX_STACKS; i++) used += lx_stack_used[i];
    if (used > LX_STACKS - 4) return 0;
    doing = "clone";
    return lx_clone(b < 240 ? LX_CLONE : LX_CLONE ^ number(), thread, NULL, &futexes[b % 8], S(futexes));
}

static uint64_t steps;
static QUIET void step(void) {
    const uint8_t what = byte();
    int64_t r = 0;
    lx_tsc += steps++ % 5000;
    if (what < 160) r = do_call();
    else if (what < 182) r = do_mmap() < 0 ? -12 : 0;
    else if (what < 192) r = do_munmap();
    else if (what < 200) r = do_mremap() < 0 ? -12 : 0;
    else if (what < 208) r = do_brk();
    else if (what < 216) r = do_madvise();
    else if (what < 222) r = do_mprotect();
    else if (what < 230) do_restart();
    else if (what < 232) do_trim();
    else if (what < 244) r = do_clone();
    else if (what < 246) lx_input = byte() & 1 ? NULL : "some input for it";
    else if (what < 248) futexes[byte() % 8] = byte() % 3;
    else if (what < 250) r = sys(62, byte() & 1 ? sys(39) : byte(), byte() & 1 ? 0 : byte() % 70);
    else if (what < 252) r = sys(word() | (byte() > 250 ? 1ull << 40 : 0) | 512, 0, 0, 0);
    else if (what == 252) sys(SYS_exit_group, byte());
    else check_time();
    if (r < -133) bad("neither a result nor -errno", r);
    if (steps % 8 == 0 || (what >= 160 && what < 208)) check_all();
}

static void thread(void *arg) {
    (void)arg;
    while (in < in_end && byte() != 0xfe) step();
}

/* ---- a program ---- */

static uint8_t archive[1 << 16];
static QUIET size_t member(size_t at, uint8_t kind) {
    static const char *const members[] = {"f", "dir/f", "dir/", "dir", "link", "dir/up", "hard", "loop", "dir/deep/er/x", "./f", "/f", "dir/../f", "tmp/a", "dev/null",
                                          "proc/x", "dir/f/x", "a", "b", "d/x", "."};
    static const char types[] = "0000512222113467xLKgZ";
    const char *name = members[byte() % HLSNAP_COUNT(members)], type = types[byte() % (sizeof(types) - 1)];
    const char *to = members[byte() % HLSNAP_COUNT(members)];
    uint8_t *h = archive + at;
    char pax[64];
    const size_t n = byte() % 3 ? byte() : word() % 3000;
    unsigned sum = 0, i;
    if (at + 512 + 4096 > sizeof(archive)) return at;
    memset(h, 0, 512 + (n + 511) / 512 * 512);
    strcpy((char *)h, name);
    snprintf((char *)h + 100, 8, "%07o", 0644);
    snprintf((char *)h + 124, 12, "%011llo", type == '5' || type == '2' || type == '1' ? 0ull : (unsigned long long)n);
    snprintf((char *)h + 136, 12, "%011o", 1000000000);
    h[156] = (uint8_t)type;
    strcpy((char *)h + 157, to);
    if (kind & 8) memcpy(h + 257, "ustar\0" "00", 8);
    if (kind & 16) strcpy((char *)h + 345, "dir");
    if (kind & 32) h[124] = 0x80; /* GNU's numbers */
    memset(h + 512, 'x', n);
    if (type == 'x') {
        snprintf(pax, sizeof(pax), "%zu %spath=%s\n", 9 + strlen(name) + (kind & 64 ? 4u : 0u), kind & 64 ? "link" : "", name);
        memcpy(h + 512, pax, strlen(pax) < n ? strlen(pax) : n);
    } else if ((type == 'L' || type == 'K') && n > strlen(name))
        strcpy((char *)h + 512, name);
    if (kind & 1) h[word() % 512] = byte(); /* with a checksum that fits */
    memset(h + 148, ' ', 8);
    for (i = 0; i < 512; i++) sum += h[i];
    snprintf((char *)h + 148, 8, "%06o", sum);
    if (kind >= 252) h[word() % 512] = byte(); /* and with one that does not */
    return at + 512 + (type == '5' || type == '2' || type == '1' ? 0 : (n + 511) / 512 * 512);
}

/* What random calls would take long to come to: one of each kind of descriptor, and some that have to do with each other. */
static QUIET void scene(void) {
    static const char *const opened[] = {"/tmp", "/dir/f", "/dev/urandom", "/dev/zero", "/dev/null", "/proc/self/fd"};
    struct epoll_event e = {.events = EPOLLIN};
    static char text[5000];
    int p[2];
    size_t i;
    int64_t r;
    doing = "the scene";
    sys(SYS_mkdir, "/tmp/d", 0755);
    sys(SYS_mkdir, "/tmp/d/e", 0755);
    sys(SYS_open, "/tmp/d/x", O_RDWR | O_CREAT, 0600);
    sys(SYS_open, "/tmp/a", O_RDWR | O_CREAT, 0600);
    sys(SYS_write, 4, text, sizeof(text));
    if (!sys(SYS_pipe2, p, O_NONBLOCK)) sys(SYS_write, p[1], text, 10);
    sys(SYS_eventfd2, 1, 0);
    for (i = 0; i < 2; i++) sys(SYS_epoll_create1, 0);
    for (i = 0; i < 9; i++) sys(SYS_epoll_ctl, 8 + i / 5, 1, i, &e);
    for (i = 0; i < HLSNAP_COUNT(opened); i++) sys(SYS_open, opened[i], O_RDONLY);
    r = sys(SYS_mmap, 0, 8192, 3, 1, 4, 0);
    if (r > 0) place_add((uint64_t)r, 8192);
}

/* So many files that the table of names grows. */
static QUIET void many_files(void) {
    char path[32];
    int64_t fd;
    int i;
    doing = "many files";
    for (i = 0; i < 80; i++) {
        snprintf(path, sizeof(path), "/tmp/d/%d", i);
        fd = sys(SYS_open, path, O_WRONLY | O_CREAT, 0600);
        if (fd >= 0) sys(SYS_close, fd);
    }
}

/* A stack as the first one, in memory that has room for it. */
static QUIET void first_stack(void) {
    const uint32_t args = byte() % 6, env = byte() % 4;
    hlsnap_abi_program *p = (hlsnap_abi_program *)gift(sizeof(*p) + 10 * (args + env));
    uint8_t *stack = (uint8_t *)gift(2048);
    uint64_t sp;
    memset(p, 0, sizeof(*p) + 10 * (args + env));
    memcpy(p, (const void *)(uintptr_t)lx_identity->program, sizeof(*p));
    p->files_size = 0;
    p->num_args = args;
    p->num_env = env;
    p->phdr = byte() & 1;
    p->strings = sizeof(*p);
    p->strings_size = 10 * (args + env);
    memset((uint8_t *)p + sizeof(*p), 0, p->strings_size);
    lx_identity->program = S(p);
    sp = hlsnap__lx_stack_make(S(stack + 2048));
    MUST(sp % 16 == 0 && sp > S(stack));
    MUST_EQ(hlsnap__lx_get64(sp), args);
}

static QUIET void begin(void) {
    static const uint16_t heaps[] = {64, 200, 100, 400, 1000, 20};
    const uint8_t b = byte(), num = byte();
    hlsnap_abi_mailbox *m = (hlsnap_abi_mailbox *)(void *)lx.mailbox;
    size_t n = 0, i;
    for (i = 0; i < num % 24; i++) n = member(n, byte());
    if (num > 100 && n) n -= word() % n; /* cut off, or with no end */
    else memset(archive + n, 0, num & 64 ? 512 : 0), n += num & 64 ? 512 : 0;
    lx_begin((size_t)heaps[b % HLSNAP_COUNT(heaps)] << 12, archive, n);
    if (b & 16) m->out_size = 2048;
    if (b & 32) lx_identity->options &= ~(unsigned)HLSNAP_ABI_OPTION_OUTPUT;
    if (b > 240) lx_identity->options |= HLSNAP_ABI_OPTION_STRICT;
    if (b & 64) lx_identity->log_level = 1;
    memset(shadow, 0, sizeof(shadow));
    memset(wiped, 0, sizeof(wiped));
    memset(places, 0, sizeof(places));
    memset(futexes, 0, sizeof(futexes));
    num_places = 0;
    steps = 0;
    test_bad = 0;
    restarts = -1;
    check_time();
    if (b & 128) first_stack();
    if (num % 4) scene();
    if (num % 16 == 15) many_files();
    check_all();
}

/* ---- its end: nothing may be left of what it had ---- */

static QUIET void remove_in(uint32_t dir, char *path, size_t n) {
    uint32_t i = hlsnap__lx_node_at(dir)->first;
    while (i) {
        const hlsnap__lx_node *p = hlsnap__lx_node_at(i);
        const uint32_t next = p->next, flags = p->flags;
        const size_t k = n + 1 + p->name_size;
        path[n] = '/';
        memcpy(path + n + 1, p->name, p->name_size);
        path[k] = 0;
        if (hlsnap__lx_is(i, HLSNAP__LX_FOLDER)) remove_in(i, path, k);
        path[k] = 0;
        if (!(flags & (HLSNAP__LX_N_ARCHIVE | HLSNAP__LX_N_SYSTEM))) {
            const int64_t r = sys(hlsnap__lx_is(i, HLSNAP__LX_FOLDER) ? SYS_rmdir : SYS_unlink, path);
            if (r && r != -36) bad(path, r);
        }
        i = next;
    }
}

static QUIET void ends(void) {
    static char path[1 << 16];
    uint32_t i;
    doing = "the end";
    MUST_EQ(sys(SYS_close_range, 0, UINT32_MAX, 0), 0);
    MUST_EQ(sys(SYS_chdir, "/"), 0);
    for (i = 0; i < HLSNAP__LX_SHARES; i++) /* each time, a page goes out of one mapping */
        MUST_EQ(sys(SYS_munmap, hlsnap__lx_mem.brk_start, hlsnap__lx_mem.base + hlsnap__lx_mem.pages * 4096 - hlsnap__lx_mem.brk_start), 0);
    memset(shadow, 0, sizeof(shadow));
    remove_in(HLSNAP__LX_ROOT, path, 0);
    check_all();
    doing = "the end";
    for (i = 0; i < HLSNAP__LX_FDS; i++) MUST(!hlsnap__lx_fds.open[i].refs);
    for (i = 0; i < HLSNAP__LX_PIPES; i++) MUST(!hlsnap__lx_streams.pipes[i].pages[0] && !hlsnap__lx_streams.pipes[i].size);
    for (i = 0; i < HLSNAP__LX_EVENTS; i++) MUST(!hlsnap__lx_streams.events[i].used);
    for (i = 0; i < HLSNAP__LX_EPOLLS; i++) MUST(!hlsnap__lx_polling.epolls[i].by_fd);
    for (i = 0; i < HLSNAP__LX_SHARES; i++) MUST_EQ(hlsnap__lx_mem.shares[i].from, hlsnap__lx_mem.shares[i].to);
    for (i = 0; i < HLSNAP__LX_WIPES; i++) MUST_EQ(hlsnap__lx_mem.wipes[i].from, hlsnap__lx_mem.wipes[i].to);
    for (i = 1; i <= hlsnap__lx_tree.num; i++) {
        const hlsnap__lx_node *p = hlsnap__lx_node_at(i);
        if (p->mode && !(p->flags & (HLSNAP__LX_N_ARCHIVE | HLSNAP__LX_N_SYSTEM))) bad("a node is left", i);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    int i;
    in = data;
    in_end = data + size;
    lx_main = (uint8_t *)__builtin_frame_address(0);
    lx_may_end = true;
    if (!setjmp(lx_ended)) {
        begin();
        while (in < in_end) step();
        for (i = 0; i < 200 && hlsnap__lx_tasks.living > 1; i++) sys(SYS_sched_yield);
        if (hlsnap__lx_tasks.living == 1) ends();
    } else if (lx_request.function == HLSNAP_ABI_FN_ABORT && lx_request.number == HLSNAP__ABORT_DEADLOCK)
        check_deadlock();
    gifts_free();
    return 0;
}

/* ---- seeds: each call often, in programs that the fuzzer takes on from ---- */

static QUIET int seeds(const char *dir) {
    unsigned long long x = 88172645463325252ull;
    char path[4096];
    int i, k;
    for (i = 0; i < 40; i++) {
        FILE *f;
        snprintf(path, sizeof(path), "%s/%03d", dir, i);
        if (!(f = fopen(path, "wb"))) return 1;
        for (k = 0; k < 60 + 8 * i; k++) {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            fputc((int)(x >> 32 & 255), f);
        }
        fclose(f);
    }
    return 0;
}
int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerInitialize(int *argc, char ***argv) {
    if (*argc > 2 && strcmp((*argv)[1], "--seeds") == 0) exit(seeds((*argv)[2]));
    return 0;
}

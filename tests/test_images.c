/* test_images.c - images, on the fake hypervisor and in layouts: what the guest sees at both places, what snapshots, restores and
   files make of it, what is refused, what is left behind. On KVM, through the runtime, they are in test_kvm.c; with failing
   allocations and system calls in test_oom.c.
   cc:  cc -std=gnu11 -I.. test_images.c -lcjson -o test_images
   run: ./test_images [name]      SEED=n: the same random run again; OPS=n: so many operations */
#define HLSNAP_IMPLEMENTATION
#include "fake.h"
#include "hlsnap_oci.h"
#include "guest_fake.h"
#include "test.h"

enum { HEAP = 512 }; /* pages */
static char dir[] = "/tmp/hlsnap-images-XXXXXX";

static uint64_t heap_of(const hlsnap_sandbox *sb, uint64_t page) { return region_gva(sb, HLSNAP__HEAP) + page * 4096; }

/* What the host answers: "" where it did it. */
static const char *image_at(hlsnap_sandbox *sb, uint64_t from, uint64_t to, uint64_t size, uint32_t options) {
    static char text[600];
    hlsnap_value out;
    if (!CHECK_EQ(hlsnap_sandbox_call(sb, "image", HLSNAP_ARGS(hlsnap_u64(from), hlsnap_u64(to), hlsnap_u64(size), hlsnap_u32(options)), &out, &err), HLSNAP_OK))
        return printf("# %s\n", err.msg), "?";
    snprintf(text, sizeof(text), "%s", out.str);
    return text;
}
/* From page to page of the heap. */
static void image(hlsnap_sandbox *sb, uint64_t from, uint64_t to, uint64_t pages, uint32_t options) {
    CHECK_STR(image_at(sb, heap_of(sb, from), heap_of(sb, to), pages * 4096, options), "");
}
static void zeros(hlsnap_sandbox *sb, uint64_t to, uint64_t pages) {
    CHECK_STR(image_at(sb, 0, heap_of(sb, to), pages * 4096, 0), "");
}

static void put(hlsnap_sandbox *sb, uint64_t page, uint64_t v) {
    if (!CHECK_EQ(hlsnap_sandbox_call(sb, "poke", HLSNAP_ARGS(hlsnap_u64(heap_of(sb, page) + 8), hlsnap_bytes(&v, 8)), NULL, &err), HLSNAP_OK)) printf("# %s\n", err.msg);
}
static uint64_t get(hlsnap_sandbox *sb, uint64_t page) {
    hlsnap_value out;
    if (!CHECK_EQ(hlsnap_sandbox_call(sb, "peek", HLSNAP_ARGS(hlsnap_u64(heap_of(sb, page) + 8)), &out, &err), HLSNAP_OK)) return printf("# %s\n", err.msg), 0;
    return out.as.u64;
}
static void fill(hlsnap_sandbox *sb, uint64_t page, uint64_t pages, uint64_t v) {
    for (; pages; pages--) put(sb, page++, v++);
}
static bool holds(hlsnap_sandbox *sb, uint64_t page, uint64_t pages, uint64_t v) {
    for (; pages; pages--, page++, v++)
        if (get(sb, page) != v) return printf("# page %llu: %llu, not %llu\n", (unsigned long long)page, (unsigned long long)get(sb, page), (unsigned long long)v), false;
    return true;
}
static bool empty(hlsnap_sandbox *sb, uint64_t page, uint64_t pages) {
    for (; pages; pages--, page++)
        if (get(sb, page)) return false;
    return true;
}

static hlsnap_snapshot *take(hlsnap_sandbox *sb) {
    hlsnap_snapshot *s = NULL;
    if (!CHECK_EQ(hlsnap_sandbox_snapshot(sb, &s, &err), HLSNAP_OK)) printf("# %s\n", err.msg);
    return s;
}
static void restore(hlsnap_sandbox *sb, hlsnap_snapshot *s) {
    if (!CHECK_EQ(hlsnap_sandbox_restore(sb, s, &err), HLSNAP_OK)) printf("# %s\n", err.msg);
}
static hlsnap_sandbox *from(hlsnap_snapshot *s) {
    const hlsnap_sandbox_desc d = host_desc();
    hlsnap_sandbox *sb = NULL;
    if (!CHECK_EQ(hlsnap_sandbox_create_from(s, &d, &sb, &err), HLSNAP_OK)) printf("# %s\n", err.msg);
    return sb;
}
/* The same after a way through a layout. */
static hlsnap_snapshot *stored(hlsnap_snapshot *s, const char *tag) {
    hlsnap_snapshot *back = NULL;
    if (!CHECK_EQ(hlsnap_oci_save(dir, tag, s, NULL, NULL, &err), HLSNAP_OK) ||
        !CHECK_EQ(hlsnap_oci_load(dir, tag, NULL, &back, NULL, &err), HLSNAP_OK))
        printf("# %s\n", err.msg);
    return back;
}

static void begin(void) { fake_reset(); }
static void end(void) {
    CHECK_EQ(inject.live, 0);
    CHECK_EQ(inject.maps, 0);
    CHECK_EQ(hv.shells, 0);
    CHECK_EQ(hv.bad, 0);
    CHECK_EQ(count_lines("/proc/self/maps", "memfd:hlsnap"), 0);
}

/* ---- what is seen ---- */

/* Each place is its own from then on, and nothing is copied for it. */
static void copy_on_write(void) {
    hlsnap_sandbox *sb;
    begin();
    sb = start(GUEST_ALL, HEAP);
    fill(sb, 0, 64, 100);
    image(sb, 0, 64, 64, HLSNAP_ABI_IMAGE_ONCE); /* the image */
    put(sb, 0, 1);
    CHECK(holds(sb, 64, 64, 100));
    image(sb, 64, 128, 64, 0);
    image(sb, 64, 192, 64, 0);
    CHECK_EQ(count_lines("/proc/self/maps", "memfd:hlsnap"), 4 + 1); /* at three places, and the layer's own */
    CHECK(holds(sb, 128, 64, 100) && holds(sb, 192, 64, 100));
    put(sb, 130, 7);
    put(sb, 64 + 3, 8);
    CHECK(get(sb, 130) == 7 && get(sb, 194) == 102 && get(sb, 131) == 103 && get(sb, 195) == 103 && get(sb, 66) == 102);
    image(sb, 66, 256, 2, 0); /* what was written to it since */
    CHECK(get(sb, 256) == 102 && get(sb, 257) == 8);
    hlsnap_sandbox_destroy(sb);
    end();
}

/* Over what is there, whatever it is; what was shown before is gone. */
static void overwritten(void) {
    hlsnap_sandbox *sb;
    begin();
    sb = start(GUEST_ALL, HEAP);
    fill(sb, 0, 32, 100);
    fill(sb, 32, 32, 200);
    fill(sb, 128, 64, 300);
    image(sb, 0, 128, 32, 0);
    CHECK(holds(sb, 128, 32, 100) && holds(sb, 160, 32, 332));
    image(sb, 32, 140, 32, 0); /* across the end of the last one */
    CHECK(holds(sb, 128, 12, 100) && holds(sb, 140, 32, 200) && holds(sb, 172, 20, 344));
    zeros(sb, 150, 4);
    CHECK(holds(sb, 140, 10, 200) && empty(sb, 150, 4) && holds(sb, 154, 18, 214));
    image(sb, 128, 256, 64, 0); /* of pieces: mapped, zero and copied ones */
    CHECK(holds(sb, 256, 12, 100) && holds(sb, 268, 10, 200) && empty(sb, 278, 4) && holds(sb, 282, 18, 214) && holds(sb, 300, 20, 344));
    hlsnap_sandbox_destroy(sb);
    end();
}

/* ---- snapshots ---- */

/* A restore puts back what was there before; what a snapshot has comes back, here and elsewhere. */
static void snapshots(void) {
    hlsnap_sandbox *sb, *other;
    hlsnap_snapshot *bare, *made, *mapped, *loaded;
    begin();
    sb = start(GUEST_ALL, HEAP);
    fill(sb, 0, 32, 100);
    fill(sb, 256, 32, 500);
    bare = take(sb);
    image(sb, 0, 64, 32, HLSNAP_ABI_IMAGE_ONCE);
    made = take(sb);
    image(sb, 64, 256, 32, 0);
    put(sb, 257, 1);
    CHECK(get(sb, 256) == 100 && get(sb, 257) == 1);
    restore(sb, made); /* the mapping is gone, the image is there */
    CHECK(holds(sb, 256, 32, 500) && holds(sb, 64, 32, 100));
    image(sb, 64, 256, 32, 0);
    put(sb, 258, 2);
    mapped = take(sb);
    restore(sb, bare); /* so is the image */
    CHECK(holds(sb, 256, 32, 500) && empty(sb, 64, 32));
    restore(sb, mapped);
    CHECK(holds(sb, 64, 32, 100) && holds(sb, 256, 2, 100) && get(sb, 258) == 2 && holds(sb, 259, 29, 103));
    image(sb, 64, 300, 32, 0);
    restore(sb, mapped);
    CHECK(empty(sb, 300, 32) && holds(sb, 64, 32, 100) && get(sb, 258) == 2);
    other = from(mapped);
    CHECK(holds(other, 64, 32, 100) && holds(other, 256, 2, 100) && get(other, 258) == 2 && holds(other, 259, 29, 103));
    loaded = stored(mapped, "mapped");
    restore(other, made);
    CHECK(holds(other, 256, 32, 500) && holds(other, 64, 32, 100));
    restore(other, loaded);
    CHECK(holds(other, 64, 32, 100) && holds(other, 256, 2, 100) && get(other, 258) == 2 && holds(other, 259, 29, 103));
    image(other, 64, 300, 32, 0); /* an image from a file is one */
    CHECK(holds(other, 300, 32, 100));
    restore(other, loaded);
    CHECK(empty(other, 300, 32));
    hlsnap_snapshot_release(bare);
    hlsnap_snapshot_release(made);
    hlsnap_snapshot_release(mapped);
    hlsnap_snapshot_release(loaded);
    hlsnap_sandbox_destroy(sb);
    hlsnap_sandbox_destroy(other);
    end();
}

/* In memory a snapshot has an image once, wherever it is shown. */
static void stored_once(void) {
    hlsnap_snapshot_info info;
    hlsnap_sandbox *sb;
    hlsnap_snapshot *s;
    uint64_t pages = 0;
    uint32_t i;
    begin();
    sb = start(GUEST_ALL, HEAP);
    fill(sb, 0, 64, 100);
    image(sb, 0, 64, 64, 0); /* `from` is laid anew, too */
    image(sb, 64, 128, 64, 0);
    image(sb, 64, 192, 64, 0);
    put(sb, 200, 1);
    s = take(sb);
    hlsnap_snapshot_get_info(s, &info);
    CHECK(info.stored_pages >= 256);
    for (i = 0; i < s->num_layers; i++) pages += s->layers[i]->pages;
    CHECK(pages < 64 + 16);
    restore(sb, s);
    CHECK(holds(sb, 192, 8, 100) && get(sb, 200) == 1 && holds(sb, 201, 55, 109));
    CHECK_EQ(sb->memory.num_hot < 16, true); /* nothing of it was copied */
    hlsnap_snapshot_release(s);
    hlsnap_sandbox_destroy(sb);
    end();
}

/* A restore behind a mapping lays what was there: it copies no page of it. */
static void cheap_restore(void) {
    hlsnap_sandbox *sb;
    hlsnap_snapshot *s;
    uint64_t copied;
    hlsnap_stats stats;
    int i;
    begin();
    sb = start(GUEST_ALL, HEAP);
    fill(sb, 0, 128, 100);
    image(sb, 0, 128, 128, HLSNAP_ABI_IMAGE_ONCE);
    s = take(sb);
    restore(sb, s);
    hlsnap_sandbox_get_stats(sb, &stats);
    copied = stats.copied_bytes;
    for (i = 0; i < 10; i++) {
        image(sb, 128, 256, 128, 0);
        CHECK(get(sb, 256) == 100 && get(sb, 383) == 227);
        put(sb, 300, 1);
        restore(sb, s);
        CHECK(get(sb, 256) == 0 && get(sb, 300) == 0);
    }
    hlsnap_sandbox_get_stats(sb, &stats);
    CHECK((stats.copied_bytes - copied) / 4096 <= 10 * 16);
    hlsnap_snapshot_release(s);
    hlsnap_sandbox_destroy(sb);
    end();
}

/* ---- what is refused ---- */

static void refused(void) {
    hlsnap_sandbox *sb;
    uint64_t heap, end_of, stack, data;
    const uint64_t most = UINT64_MAX - 4095;
    char want[300];
    begin();
    sb = start(GUEST_ALL, HEAP);
    heap = heap_of(sb, 0);
    end_of = heap_of(sb, HEAP);
    stack = region_gva(sb, HLSNAP__STACK);
    data = region_gva(sb, HLSNAP__TEXT);
    fill(sb, 0, 32, 100);
#define REFUSED(from, to, size, why)                                                                                                 \
    do {                                                                                                                             \
        snprintf(want, sizeof(want), "%d image of 0x%llx bytes from 0x%llx to 0x%llx: " why, HLSNAP_ERR_ARG, (unsigned long long)(size), (unsigned long long)(from), (unsigned long long)(to)); \
        CHECK_STR(image_at(sb, from, to, size, 0), want);                                                                            \
    } while (0)
    REFUSED(heap + 1, heap + 65536, 4096, "these are no multiples of 4096");
    REFUSED(heap, heap + 65537, 4096, "these are no multiples of 4096");
    REFUSED(heap, heap + 65536, 4095, "these are no multiples of 4096");
    REFUSED(heap, heap + 65536, 0, "these are no multiples of 4096");
    REFUSED(heap, end_of - 4096, 8192, "it is not to heap or data");
    REFUSED(heap, end_of, 4096, "it is not to heap or data");
    REFUSED(heap, heap - 4096, 4096, "it is not to heap or data");
    REFUSED(heap, most, 8192, "it is not to heap or data");
    REFUSED(heap, heap + 65536, most, "it is not to heap or data");
    REFUSED(heap, stack, 4096, "it is not to heap or data");
    REFUSED(heap, data, 4096, "it is not to heap or data");
    REFUSED(heap, region_gva(sb, HLSNAP__IDENTITY), 4096, "it is not to heap or data");
    REFUSED(heap, region_gva(sb, HLSNAP__MAILBOX), 4096, "it is not to heap or data");
    REFUSED(heap, 0, 4096, "it is not to heap or data");
    REFUSED(end_of - 4096, heap, 8192, "the guest has not what it is from");
    REFUSED(4096, heap, 4096, "the guest has not what it is from");
    REFUSED(stack - 4096, heap, 8192, "the guest has not what it is from");
    REFUSED(most, heap, 8192, "the guest has not what it is from");
    REFUSED(HLSNAP__MAPS_GVA, heap, 4096, "the guest has not what it is from");
    REFUSED(heap, heap, 8192, "they overlap");
    REFUSED(heap, heap + 4096, 8192, "they overlap");
    REFUSED(heap + 4096, heap, 8192, "they overlap");
    CHECK(holds(sb, 0, 32, 100) && empty(sb, 32, 32)); /* nothing was changed */
    CHECK_STR(image_at(sb, heap, heap + 8192, 8192, 0), "");
    CHECK_STR(image_at(sb, data, heap, 4096, 0), ""); /* from where it can only read */
    CHECK_EQ(hlsnap_sandbox_call(sb, "image", HLSNAP_ARGS(hlsnap_u64(heap), hlsnap_u64(heap + 8192), hlsnap_u64(4096), hlsnap_u32(2)), NULL, &err), HLSNAP_ERR_PROTOCOL);
    CHECK_STR(err.msg, "the guest asks for an image with options 0x2");
    hlsnap_sandbox_destroy(sb);
    sb = start(GUEST_ALL, HEAP);
    CHECK_EQ(hlsnap_sandbox_call(sb, "image_odd", HLSNAP_NO_ARGS, NULL, &err), HLSNAP_ERR_PROTOCOL);
    CHECK_STR(err.msg, "the guest's request 0xfffffff8 of 4 values is malformed");
    hlsnap_sandbox_destroy(sb);
    end();
}

/* From memory that is no place for a mapping: mailbox, stack, two regions at once; from a map. */
static void sources(void) {
    static uint8_t mine[20 * 4096] __attribute__((aligned(4096)));
    hlsnap_map map = HLSNAP_ZERO;
    hlsnap_value out;
    hlsnap_sandbox *sb;
    hlsnap_snapshot *s, *loaded;
    hlsnap_guest_desc g;
    hlsnap_sandbox_desc d;
    begin();
    g = fake_guest(GUEST_ALL, HEAP);
    d = host_desc();
    g.mailbox_size = 40 * 4096;
    map.name = "m";
    map.mode = HLSNAP_MAP_PRIVATE;
    map.data = mine;
    map.size = sizeof(mine);
    memset(mine, 3, sizeof(mine));
    d.maps = &map;
    d.num_maps = 1;
    CHECK_EQ(hlsnap_sandbox_create(&g, &d, &sb, &err), HLSNAP_OK);
    CHECK_EQ(hlsnap_sandbox_call(sb, "dirty", HLSNAP_ARGS(hlsnap_u64(region_gva(sb, HLSNAP__MAILBOX) + 12 * 4096), hlsnap_u32(26), hlsnap_u32(7)), NULL, &err), HLSNAP_OK);
    CHECK_STR(image_at(sb, region_gva(sb, HLSNAP__MAILBOX) + 12 * 4096, heap_of(sb, 0), 26 * 4096, 0), "");
    CHECK_STR(image_at(sb, region_gva(sb, HLSNAP__MAILBOX) + 12 * 4096, heap_of(sb, 30), 26 * 4096, 0), "");
    CHECK_EQ(hlsnap_sandbox_call(sb, "map", HLSNAP_ARGS(hlsnap_str("m"), hlsnap_bool(false)), &out, &err), HLSNAP_OK);
    CHECK_STR(image_at(sb, out.as.u64, heap_of(sb, 60), 20 * 4096, 0), "");
    CHECK_STR(image_at(sb, out.as.u64 + 4096, heap_of(sb, 80), 3 * 4096, 0), "");
    CHECK(get(sb, 79) == 0x0303030303030303 && get(sb, 82) == 0x0303030303030303 && get(sb, 83) == 0);
    put(sb, 60, 1);
    CHECK_EQ(mine[8], 3);
    s = take(sb);
    loaded = stored(s, "sources");
    CHECK(loaded != NULL);
    hlsnap_snapshot_release(s);
    hlsnap_snapshot_release(loaded);
    hlsnap_sandbox_destroy(sb);
    end();
}

/* What a guest can make its host hold is bounded, and a restore gives it back. */
/* What the host lacks for a layer is no fault of the guest's: it is refused as by a bound, nothing has changed, and it goes on. */
static void what_the_host_lacks(void) {
    static const int errnos[] = {0, EMFILE, ENFILE, ENOMEM, EFBIG}; /* 0: an allocation */
    hlsnap_sandbox *sb;
    hlsnap_snapshot *s;
    size_t i;
    begin();
    sb = start(GUEST_ALL, HEAP);
    s = take(sb);
    for (i = 0; i < HLSNAP_COUNT(errnos); i++) {
        uint32_t refusals = 0;
        long k;
        bool hit = true;
        for (k = 0; hit && k < 200; k++) {
            hlsnap_value out;
            hlsnap_result r;
            fill(sb, 0, 100, 7);
            inject.sys_errno = errnos[i];
            inject_arm(errnos[i] ? -1 : k, errnos[i] ? k : -1);
            r = hlsnap_sandbox_call(sb, "image", HLSNAP_ARGS(hlsnap_u64(heap_of(sb, 0)), hlsnap_u64(heap_of(sb, 200)), hlsnap_u64(100 * 4096), hlsnap_u32(HLSNAP_ABI_IMAGE_ONCE)), &out, &err);
            hit = inject_disarm();
            if (!r && out.str[0]) {
                CHECK_EQ(atoi(out.str), HLSNAP_ERR_LIMIT);
                CHECK(holds(sb, 0, 100, 7) && empty(sb, 200, 100));
                refusals++;
            }
            restore(sb, s);
        }
        CHECK(refusals >= (errnos[i] == EFBIG ? 1u : 2u)); /* memfd_create, and what follows it */
        if (!CHECK(!hit)) printf("# %d: no end\n", errnos[i]);
    }
    hlsnap_sandbox_destroy(sb);
    hlsnap_snapshot_release(s);
    end();
}

static void bounds(void) {
    hlsnap_sandbox *sb;
    hlsnap_snapshot *s;
    char want[100];
    uint32_t i;
    int fds;
    begin();
    sb = start(GUEST_ALL, HEAP);
    s = take(sb);
    fds = count_fds();
    snprintf(want, sizeof(want), "%d images: %d pages are held for them, at most %d", HLSNAP_ERR_LIMIT, 4 * 144, HEAP);
    for (i = 0; i < 4; i++) { /* of each layer one page goes on being shown */
        fill(sb, 0, 144, i * 1000 + 1);
        if (i < 3) image(sb, 0, 160, 144, HLSNAP_ABI_IMAGE_ONCE);
        else CHECK_STR(image_at(sb, heap_of(sb, 0), heap_of(sb, 160), 144 * 4096, HLSNAP_ABI_IMAGE_ONCE), want);
        if (i < 3) image(sb, 160, 320 + i * 16, 16, 0);
    }
    CHECK(holds(sb, 160, 144, 2001)); /* as it was */
    restore(sb, s);
    CHECK_EQ(count_fds(), fds);
    for (i = 0; i < 200; i++) { /* each layer a descriptor */
        fill(sb, 0, 16, i * 1000 + 1);
        if (strcmp(image_at(sb, heap_of(sb, 0), heap_of(sb, 16 + i % 30 * 16), 16 * 4096, HLSNAP_ABI_IMAGE_ONCE), "")) break;
    }
    CHECK(count_fds() - fds <= 32 && i == 200); /* what is shown nowhere is gone */
    restore(sb, s);
    CHECK_EQ(count_fds(), fds);
    hlsnap_snapshot_release(s);
    hlsnap_sandbox_destroy(sb);
    end();
}

static void many_mappings(void) {
    enum { LARGE = 2 * 32 * 2100 };
    hlsnap_sandbox *sb;
    hlsnap_snapshot *s;
    char want[100];
    uint32_t i, n = 0;
    begin();
    sb = start(GUEST_ALL, LARGE);
    fill(sb, 0, 32, 1);
    image(sb, 0, 32, 32, 0);
    s = take(sb);
    snprintf(want, sizeof(want), "%d images: more than 2048 mappings", HLSNAP_ERR_LIMIT);
    for (i = 2; i < 2100; i++) {
        const char *r = image_at(sb, heap_of(sb, 32), heap_of(sb, i * 64), 16 * 4096, 0);
        if (*r) CHECK_STR(r, want);
        n += !*r;
    }
    CHECK(n > 2000 && n < 2048);
    CHECK(count_lines("/proc/self/maps", "") < 5000);
    restore(sb, s);
    CHECK(count_lines("/proc/self/maps", "") < 300);
    CHECK(get(sb, 128) == 0);
    CHECK_STR(image_at(sb, heap_of(sb, 32), heap_of(sb, 128), 16 * 4096, 0), "");
    hlsnap_snapshot_release(s);
    hlsnap_sandbox_destroy(sb);
    end();
}

/* 10,000 times made, mapped and freed: nothing grows, with restores and without. */
static void cycles(void) {
    const long n = SANITIZED ? 1000 : 10000;
    hlsnap_sandbox *sb;
    hlsnap_snapshot *s;
    balance was, now;
    int lines = 0, again;
    long i;
    for (again = 0; again < 2; again++) {
        begin();
        sb = start(GUEST_ALL, HEAP);
        s = take(sb);
        for (i = 0; i < n && !test_bad; i++) {
            put(sb, (uint64_t)(i % 32), (uint64_t)i + 1);
            image(sb, 0, 32, 32, HLSNAP_ABI_IMAGE_ONCE);
            image(sb, 32, 100 + (uint64_t)(i % 7) * 20, 32, 0);
            CHECK_EQ(get(sb, 100 + (uint64_t)(i % 7) * 20 + (uint64_t)(i % 32)), (uint64_t)i + 1);
            zeros(sb, 32, 32);
            if (again) restore(sb, s);
            if (i == n / 10) lines = count_lines("/proc/self/maps", ""), was = balance_now();
        }
        now = balance_now();
        CHECK(count_lines("/proc/self/maps", "") <= lines + 8 && now.fds <= was.fds + 1 && now.memfds <= was.memfds + 8 && now.live <= was.live + 8);
        CHECK_EQ(now.maps <= was.maps + 32 * 4096 * 8, true);
        hlsnap_snapshot_release(s);
        hlsnap_sandbox_destroy(sb);
        end();
    }
}

/* ---- at random, against a model ---- */

typedef struct m_state {
    uint64_t now[HEAP];
} m_state;
typedef struct m_taken {
    hlsnap_snapshot *s;
    m_state state;
} m_taken;

static uint64_t m_seed;
static uint64_t m_below(uint64_t n) {
    m_seed = m_seed * 6364136223846793005ull + 1442695040888963407ull;
    return (m_seed >> 33) % n;
}

static bool m_check(hlsnap_sandbox *sb, const m_state *st) {
    static uint8_t seen[HEAP * 4096];
    uint64_t i;
    if (!CHECK_EQ(hlsnap_sandbox_read(sb, heap_of(sb, 0), seen, sizeof(seen), &err), HLSNAP_OK)) return false;
    for (i = 0; i < HEAP; i++) {
        const uint64_t v = hlsnap__get64(seen + i * 4096 + 8);
        if (!CHECK_EQ(v, st->now[i])) return printf("# page %llu\n", (unsigned long long)i), false;
        if (!CHECK(!memcmp(seen + i * 4096 + 16, (uint8_t[4080]){0}, 4080))) return printf("# page %llu\n", (unsigned long long)i), false;
    }
    return true;
}

static void m_image(hlsnap_sandbox *sb, m_state *st) {
    const uint64_t pages = 1 + m_below(m_below(3) ? 40 : 180), at = m_below(HEAP - 2 * pages), b = at + pages + m_below(HEAP - at - 2 * pages + 1);
    const bool back = m_below(2) != 0, none = m_below(8) == 0;
    const uint64_t src = back ? b : at, to = back ? at : b;
    const char *r = image_at(sb, none ? 0 : heap_of(sb, src), heap_of(sb, to), pages * 4096, (uint32_t)m_below(2));
    uint64_t i;
    if (*r) CHECK(strstr(r, "images: ") != NULL);
    for (i = 0; i < pages && !*r; i++) st->now[to + i] = none ? 0 : st->now[src + i];
}

static void m_write(hlsnap_sandbox *sb, m_state *st) {
    uint64_t page = m_below(HEAP), n = m_below(3) ? 1 : 1 + m_below(60), v = m_below(4) ? 1 + m_below(1u << 30) : 0;
    for (; n && page < HEAP; n--, page++) put(sb, page, st->now[page] = v ? v + n : 0);
}

static void m_step(hlsnap_sandbox **sb, m_state *st, m_taken *t) {
    hlsnap_snapshot *s;
    m_taken *which = &t[m_below(6)];
    switch (m_below(16)) {
    case 0:
        hlsnap_snapshot_release(which->s);
        which->s = take(*sb);
        which->state = *st;
        break;
    case 1:
    case 2:
        if (!which->s) break;
        restore(*sb, which->s);
        *st = which->state;
        break;
    case 3:
        if (!which->s || m_below(3)) break;
        hlsnap_sandbox_destroy(*sb);
        *sb = from(which->s);
        *st = which->state;
        break;
    case 4:
        if (!which->s || m_below(4)) break;
        s = stored(which->s, "model");
        hlsnap_snapshot_release(which->s);
        which->s = s;
        break;
    case 5:
    case 6:
    case 7:
    case 8: m_image(*sb, st); break;
    default: m_write(*sb, st);
    }
}

static void model_of(bool blind) {
    static m_state st[2];
    static m_taken taken[6];
    const char *ops = getenv("OPS"), *seed = getenv("SEED");
    const long n = ops ? atol(ops) : SANITIZED || blind ? 1500 : 8000;
    hlsnap_sandbox *sb[2];
    long i;
    begin();
    inject.no_scan = blind;
    m_seed = seed ? strtoull(seed, NULL, 0) : 1;
    memset(st, 0, sizeof(st));
    for (i = 0; i < 2; i++) sb[i] = start(GUEST_ALL, HEAP);
    for (i = 0; i < n && !test_bad; i++) {
        const uint32_t k = (uint32_t)m_below(2);
        m_step(&sb[k], &st[k], taken);
        if (m_below(4) == 0) m_check(sb[k], &st[k]);
        if (test_bad) printf("# operation %ld, SEED=%s\n", i, seed ? seed : "1");
    }
    inject.no_scan = false;
    for (i = 0; i < 2; i++) hlsnap_sandbox_destroy(sb[i]);
    for (i = 0; i < 6; i++) hlsnap_snapshot_release(taken[i].s);
    memset(taken, 0, sizeof(taken));
    end();
}
static void model(void) { model_of(false); }
static void model_blind(void) { model_of(true); } /* no PAGEMAP_SCAN */

static const test_row tests[] = {TEST(copy_on_write), TEST(overwritten), TEST(snapshots), TEST(stored_once), TEST(cheap_restore), TEST(refused), TEST(sources), TEST(what_the_host_lacks), TEST(bounds),
                                 TEST(many_mappings), TEST(cycles), TEST(model), TEST(model_blind)};
int main(int argc, char **argv) {
    int r;
    if (!mkdtemp(dir)) return 1;
    r = (test_words = err.msg, TEST_MAIN(tests, argc, argv));
    sh("rm -rf %s", dir);
    return r;
}

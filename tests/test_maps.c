/* test_maps.c - maps, on the fake hypervisor: what the guest and the host see, what snapshots say of them, where they lie, what
   a restore puts back, and what is refused. On KVM they are in test_kvm.c, in layouts in test_map_store.c, with failing allocations
   and system calls in test_oom.c.
   cc:  cc -std=gnu11 -I.. test_maps.c -o test_maps
   run: ./test_maps [name]      SEED=n: the same random run again; OPS=n: so many operations */
#define HLSNAP_IMPLEMENTATION
#include "guest_fake.h"
#include "test.h"
#include "maps_fake.h"
#include <sys/wait.h>

/* ---- files ---- */

static char dir[] = "/tmp/hlsnap-maps-XXXXXX";
static const char *path_of(const char *name) {
    static char path[8][64];
    static int next;
    char *to = path[next++ % 8];
    snprintf(to, sizeof(path[0]), "%s/%s", dir, name);
    return to;
}

/* Byte i of page p of a file. */
static uint8_t byte_of(uint64_t i) { return (uint8_t)(1 + (i / 4096 * 7 + i % 251) % 255); }

/* A file of so many bytes, none of them zero. */
static const char *file_of(const char *name, uint64_t size) {
    const char *path = path_of(name);
    FILE *f = fopen(path, "w");
    uint64_t i;
    for (i = 0; i < size; i++) fputc(byte_of(i), f);
    fclose(f);
    return path;
}

static hlsnap_map memory_of(const char *name, hlsnap_map_mode mode, void *data, uint64_t size) {
    hlsnap_map map = map_of(name, mode, NULL);
    map.data = data;
    map.size = size;
    return map;
}

/* Pages of the host, page aligned. */
static uint8_t *pages_of(size_t n) {
    uint8_t *p = (uint8_t *)aligned_alloc(4096, n * 4096);
    size_t i;
    for (i = 0; i < n * 4096; i++) p[i] = byte_of(i);
    return p;
}

/* ---- sandboxes ---- */

static hlsnap_sandbox *with(const hlsnap_map *maps, size_t num) { return guest_with(fake_guest(GUEST_ALL, 16), maps, num); }

static uint64_t size_of(hlsnap_sandbox *sb, const char *name) {
    hlsnap_value out;
    if (!CHECK_EQ(hlsnap_sandbox_call(sb, "map", HLSNAP_ARGS(hlsnap_str(name), hlsnap_bool(true)), &out, &err), HLSNAP_OK)) return 1;
    return out.as.u64;
}

static hlsnap_result poke(hlsnap_sandbox *sb, uint64_t gva, uint64_t v) {
    return hlsnap_sandbox_call(sb, "poke", HLSNAP_ARGS(hlsnap_u64(gva), hlsnap_bytes(&v, 8)), NULL, &err);
}
static uint64_t file_word(uint64_t at) {
    uint8_t b[8];
    int i;
    for (i = 0; i < 8; i++) b[i] = byte_of(at + (uint64_t)i);
    return hlsnap__get64(b);
}

static void begin(void) { fake_reset(); }
static void end(void) {
    CHECK_EQ(inject.live, 0);
    CHECK_EQ(inject.maps, 0);
    CHECK_EQ(hv.shells, 0);
    CHECK_EQ(hv.bad, 0);
}

/* ---- what is seen ---- */

static void read_file(void) {
    const hlsnap_map map = map_of("model", HLSNAP_MAP_READ, file_of("model", 3 * 4096 + 100));
    hlsnap_sandbox *sb;
    hlsnap_snapshot *s;
    uint64_t at, v;
    begin();
    sb = with(&map, 1);
    at = found(sb, "model");
    CHECK_EQ(at, HLSNAP__MAPS_GVA);
    CHECK_EQ(size_of(sb, "model"), 3 * 4096 + 100);
    CHECK_EQ(found(sb, "mode"), 0);
    CHECK_EQ(size_of(sb, "models"), 0);
    CHECK_EQ(peek(sb, at), file_word(0));
    CHECK_EQ(peek(sb, at + 2 * 4096 + 8), file_word(2 * 4096 + 8));
    CHECK_EQ(peek(sb, at + 3 * 4096 + 104), 0); /* behind the end, to the page's */
    CHECK_EQ(hlsnap_sandbox_read(sb, at + 4090, &v, 8, &err), HLSNAP_OK);
    CHECK_EQ(v, file_word(4090));
    CHECK_EQ(hlsnap_sandbox_write(sb, at, &v, 8, &err), HLSNAP_ERR_ARG);
    CHECK(strstr(err.msg, "map 'model'") && strstr(err.msg, "READ"));
    s = take(sb);
    CHECK_EQ(poke(sb, at, 1), HLSNAP_ERR_FAULT);
    CHECK_STR(err.region, "map");
    restore(sb, s);
    CHECK_EQ(found(sb, "model"), at);
    CHECK_EQ(peek(sb, at + 4096), file_word(4096));
    hlsnap_snapshot_release(s);
    hlsnap_sandbox_destroy(sb);
    end();
}

static void private_file(void) {
    const char *path = file_of("private", 300 * 4096);
    const hlsnap_map map = map_of("p", HLSNAP_MAP_PRIVATE, path);
    hlsnap_sandbox *sb;
    hlsnap_snapshot *s;
    uint8_t byte = 0;
    uint64_t at;
    uint32_t i;
    FILE *f;
    begin();
    sb = with(&map, 1);
    at = found(sb, "p");
    s = take(sb);
    for (i = 0; i < 40; i++) { /* pages stay private, are given back, become private again */
        CHECK_EQ(poke(sb, at + 4096 * (i % 5), 77 + i), HLSNAP_OK);
        CHECK_EQ(peek(sb, at + 4096 * (i % 5)), 77 + i);
        restore(sb, s);
        CHECK_EQ(peek(sb, at + 4096 * (i % 5)), file_word(4096 * (i % 5)));
    }
    for (i = 0; i < 300; i++) CHECK_EQ(poke(sb, at + 4096 * i, i), HLSNAP_OK);
    for (i = 0; i < 100; i++) restore(sb, s);
    CHECK(sb->memory.num_hot < 40); /* what rests is given back, of a file that may shrink, too */
    byte = 9;
    CHECK_EQ(hlsnap_sandbox_write(sb, at + 4095, &byte, 1, &err), HLSNAP_OK);
    CHECK_EQ(peek(sb, at + 4088) >> 56, 9);
    restore(sb, s);
    CHECK_EQ(peek(sb, at + 4088), file_word(4088));
    f = fopen(path, "r");
    for (i = 0; i < 300 * 4096 && fgetc(f) == byte_of(i);) i++;
    fclose(f);
    CHECK_EQ(i, 300 * 4096); /* not a byte of it was written */
    hlsnap_snapshot_release(s);
    hlsnap_sandbox_destroy(sb);
    end();
}

/* A file that does not end with a page: behind its end are zeros, which can be written and are put back. */
static void private_end(void) {
    const hlsnap_map map = map_of("p", HLSNAP_MAP_PRIVATE, file_of("end", 5000));
    hlsnap_sandbox *sb, *other = NULL;
    hlsnap_snapshot *s;
    uint64_t at;
    int i;
    begin();
    sb = with(&map, 1);
    s = take(sb);
    CHECK_EQ(from(s, &map, 1, &other), HLSNAP_OK);
    at = found(other, "p");
    for (i = 0; i < 20; i++) {
        CHECK_EQ(poke(other, at + 4096, 1), HLSNAP_OK);
        CHECK_EQ(poke(other, at + 8184, 2), HLSNAP_OK);
        restore(other, s);
        CHECK_EQ(peek(other, at + 4096), file_word(4096));
        CHECK_EQ(peek(other, at + 8184), 0);
    }
    hlsnap_snapshot_release(s);
    hlsnap_sandbox_destroy(sb);
    hlsnap_sandbox_destroy(other);
    end();
}

static void shared_memory(void) {
    uint8_t *data = pages_of(2);
    const char *path = file_of("shared", 4096);
    hlsnap_map map[2];
    hlsnap_sandbox *sb;
    hlsnap_snapshot *s;
    uint64_t at, in_file;
    const void *view;
    FILE *f;
    begin();
    map[0] = memory_of("s", HLSNAP_MAP_SHARED, data, 8192);
    map[1] = map_of("f", HLSNAP_MAP_SHARED, path);
    sb = with(map, 2);
    at = found(sb, "s");
    in_file = found(sb, "f");
    CHECK(at && in_file && at != in_file);
    s = take(sb);
    CHECK_EQ(poke(sb, at + 8, 123), HLSNAP_OK);
    CHECK_EQ(hlsnap__get64(data + 8), 123);
    hlsnap__put64(data + 4096, 456);
    CHECK_EQ(peek(sb, at + 4096), 456);
    CHECK_EQ(poke(sb, in_file, 0x6f6c6c6568), HLSNAP_OK);
    restore(sb, s); /* it stays */
    CHECK_EQ(peek(sb, at + 8), 123);
    CHECK_EQ(peek(sb, in_file), 0x6f6c6c6568);
    f = fopen(path, "r");
    CHECK_EQ(fgetc(f), 'h');
    fclose(f);
    CHECK_EQ(hlsnap_sandbox_view(sb, at, 8192, &view, &err), HLSNAP_OK);
    CHECK(view == data);
    CHECK_EQ(hlsnap_sandbox_view(sb, in_file, 8, &view, &err), HLSNAP_ERR_UNSUPPORTED); /* it may shrink */
    CHECK_EQ(hlsnap_sandbox_write(sb, at, "abcdefgh", 8, &err), HLSNAP_OK);
    CHECK(memcmp(data, "abcdefgh", 8) == 0);
    hlsnap_snapshot_release(s);
    hlsnap_sandbox_destroy(sb);
    free(data);
    end();
}

/* ---- what snapshots say ---- */

#define DIGEST "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

static void contract(void) {
    hlsnap_map map[3], got, bad;
    hlsnap_sandbox *sb, *other = NULL;
    hlsnap_snapshot *s;
    begin();
    map[0] = map_of("a", HLSNAP_MAP_READ, file_of("a", 8192));
    map[0].digest = DIGEST;
    map[1] = map_of("b", HLSNAP_MAP_PRIVATE, file_of("b", 5000));
    map[2] = map_of("c", HLSNAP_MAP_READ, path_of("a"));
    map[2].optional = true;
    map[2].offset = map[2].size = 4096;
    sb = with(map, 3);
    s = take(sb);
    CHECK(hlsnap_snapshot_map(s, 0, &got));
    CHECK_STR(got.name, "a");
    CHECK_STR(got.digest, DIGEST);
    CHECK(got.mode == HLSNAP_MAP_READ && got.size == 8192 && !got.optional && !got.capture && got.gva == found(sb, "a"));
    CHECK(hlsnap_snapshot_map(s, 1, &got));
    CHECK(got.mode == HLSNAP_MAP_PRIVATE && got.size == 5000 && !got.digest && got.gva == found(sb, "b"));
    CHECK(hlsnap_snapshot_map(s, 2, &got) && got.optional && got.size == 4096);
    CHECK(!hlsnap_snapshot_map(s, 3, &got) && !hlsnap_snapshot_map(NULL, 0, &got) && !hlsnap_snapshot_map(s, 0, NULL));
    CHECK_EQ(peek(sb, found(sb, "c")), file_word(4096));

    CHECK_EQ(from(s, NULL, 0, &other), HLSNAP_ERR_CONTRACT);
    CHECK(strstr(err.msg, "a (read, 8192 bytes) is missing; b (private, 5000 bytes) is missing") && !strstr(err.msg, "c ("));
    bad = map[0];
    bad.mode = HLSNAP_MAP_PRIVATE;
    CHECK_EQ(from(s, &bad, 1, &other), HLSNAP_ERR_CONTRACT);
    CHECK(strstr(err.msg, "a is private of 8192 bytes, not read of 8192; b (private"));
    bad = map[0];
    bad.digest = NULL;
    CHECK_EQ(from(s, &bad, 1, &other), HLSNAP_ERR_CONTRACT);
    CHECK(strstr(err.msg, "a has the digest (none), not sha256:0123456789ab"));
    map[1].path = map[0].path;
    CHECK_EQ(from(s, map, 2, &other), HLSNAP_ERR_CONTRACT);
    CHECK(strstr(err.msg, "maps: b is private of 8192 bytes, not private of 5000"));
    map[1].path = path_of("b");
    CHECK(other == NULL);
    CHECK_EQ(hlsnap_sandbox_unmap(sb, "b", &err), HLSNAP_OK);
    CHECK_EQ(hlsnap_sandbox_restore(sb, s, &err), HLSNAP_ERR_CONTRACT); /* and nothing was changed */
    CHECK_EQ(call0(sb, "nop"), HLSNAP_OK);
    CHECK_EQ(hlsnap_sandbox_map(sb, &map[1], &err), HLSNAP_OK);
    restore(sb, s);

    CHECK_EQ(from(s, map, 2, &other), HLSNAP_OK); /* without the optional one */
    CHECK_EQ(found(other, "a"), found(sb, "a"));
    CHECK_EQ(found(other, "b"), found(sb, "b"));
    CHECK_EQ(found(other, "c"), 0);
    CHECK_EQ(hlsnap_sandbox_map(other, &map[2], &err), HLSNAP_OK); /* its place was kept */
    CHECK_EQ(found(other, "c"), found(sb, "c"));
    hlsnap_snapshot_release(s);
    hlsnap_sandbox_destroy(sb);
    hlsnap_sandbox_destroy(other);
    end();
}

/* Pages that a guest changed are in the snapshot, those that it zeroed too; the others are the file's. */
static void private_pages_are_stored(void) {
    const hlsnap_map map = map_of("p", HLSNAP_MAP_PRIVATE, file_of("stored", 64 * 4096));
    static const uint8_t zeros[4096];
    hlsnap_sandbox *sb, *other = NULL;
    hlsnap_snapshot *one, *two;
    uint64_t at;
    uint32_t i;
    begin();
    sb = with(&map, 1);
    at = found(sb, "p");
    CHECK_EQ(poke(sb, at, 1), HLSNAP_OK);
    CHECK_EQ(hlsnap_sandbox_write(sb, at + 3 * 4096, zeros, 4096, &err), HLSNAP_OK);
    for (i = 20; i < 60; i++) CHECK_EQ(poke(sb, at + i * 4096, i), HLSNAP_OK);
    one = take(sb);
    CHECK_EQ(poke(sb, at, 2), HLSNAP_OK);
    CHECK_EQ(poke(sb, at + 4096, 3), HLSNAP_OK);
    two = take(sb);
    CHECK_EQ(from(two, &map, 1, &other), HLSNAP_OK);
    CHECK(peek(other, at) == 2 && peek(other, at + 4096) == 3 && peek(other, at + 2 * 4096) == file_word(2 * 4096));
    CHECK(peek(other, at + 3 * 4096) == 0 && peek(other, at + 59 * 4096) == 59 && peek(other, at + 60 * 4096) == file_word(60 * 4096));
    restore(other, one);
    CHECK(peek(other, at) == 1 && peek(other, at + 4096) == file_word(4096) && peek(other, at + 3 * 4096) == 0);
    restore(sb, one);
    CHECK(peek(sb, at) == 1 && peek(sb, at + 4096) == file_word(4096) && peek(sb, at + 3 * 4096) == 0);
    restore(sb, two);
    CHECK(peek(sb, at) == 2 && peek(sb, at + 4096) == 3);
    hlsnap_snapshot_release(one);
    hlsnap_snapshot_release(two);
    hlsnap_sandbox_destroy(sb);
    hlsnap_sandbox_destroy(other);
    end();
}

static void captured(void) {
    const char *path = file_of("captured", 40 * 4096 + 9);
    hlsnap_map map[2];
    hlsnap_sandbox *sb, *other = NULL;
    hlsnap_snapshot *one, *two;
    uint64_t at, writable, v = 0;
    begin();
    map[0] = map_of("r", HLSNAP_MAP_READ, path);
    map[1] = map_of("w", HLSNAP_MAP_PRIVATE, path);
    map[0].capture = map[1].capture = true;
    sb = with(map, 2);
    at = found(sb, "r");
    writable = found(sb, "w");
    CHECK_EQ(truncate(path, 0), 0); /* it was copied */
    CHECK_EQ(peek(sb, at + 8 * 4096), file_word(8 * 4096));
    one = take(sb);
    CHECK_EQ(poke(sb, writable + 4096, 5), HLSNAP_OK);
    two = take(sb);
    CHECK(one->maps[0].layer && one->maps[0].layer == two->maps[0].layer && one->maps[1].layer == two->maps[1].layer);
    CHECK(one->maps[0].layer != one->maps[1].layer && one->maps[0].layer->pages == 41);
    hlsnap_sandbox_destroy(sb);
    CHECK_EQ(from(two, NULL, 0, &other), HLSNAP_OK); /* the host gives nothing */
    CHECK(found(other, "r") == at && found(other, "w") == writable && size_of(other, "r") == 40 * 4096 + 9);
    CHECK(peek(other, at + 39 * 4096) == file_word(39 * 4096) && peek(other, writable + 4096) == 5);
    CHECK_EQ(peek(other, writable), file_word(0));
    CHECK_EQ(poke(other, writable, 6), HLSNAP_OK);
    CHECK_EQ(poke(other, at, 6), HLSNAP_ERR_FAULT);
    restore(other, one);
    CHECK(peek(other, writable) == file_word(0) && peek(other, writable + 4096) == file_word(4096));
    CHECK_EQ(hlsnap_snapshot_read(two, writable + 4096, &v, 8, &err), HLSNAP_OK);
    CHECK_EQ(v, 5);
    CHECK_EQ(hlsnap_snapshot_read(two, at + 41 * 4096 - 4, &v, 8, &err), HLSNAP_ERR_ARG);
    CHECK_EQ(hlsnap_sandbox_unmap(other, "r", &err), HLSNAP_OK);
    CHECK_EQ(found(other, "r"), 0);
    restore(other, two); /* brings it back */
    CHECK(found(other, "r") == at && peek(other, at) == file_word(0) && peek(other, writable + 4096) == 5);
    hlsnap_snapshot_release(one);
    hlsnap_snapshot_release(two);
    hlsnap_sandbox_destroy(other);
    end();
}

/* A page of zeros in a captured map is the snapshot's; where that is not restored to, the host's content is back. */
static void captured_zeros(void) {
    static const uint8_t zeros[4096];
    hlsnap_map map = map_of("c", HLSNAP_MAP_PRIVATE, file_of("zeros", 30 * 4096));
    hlsnap_sandbox *sb;
    hlsnap_snapshot *without, *with_zeros;
    uint64_t at;
    int i;
    begin();
    map.capture = true;
    sb = with(NULL, 0);
    without = take(sb);
    CHECK_EQ(hlsnap_sandbox_map(sb, &map, &err), HLSNAP_OK);
    at = found(sb, "c");
    CHECK_EQ(hlsnap_sandbox_write(sb, at + 3 * 4096, zeros, 4096, &err), HLSNAP_OK);
    with_zeros = take(sb);
    for (i = 0; i < 3; i++) {
        restore(sb, with_zeros);
        CHECK_EQ(peek(sb, at + 3 * 4096), 0);
        CHECK_EQ(peek(sb, at + 4 * 4096), file_word(4 * 4096));
        restore(sb, without);
        CHECK_EQ(peek(sb, at + 3 * 4096), file_word(3 * 4096));
    }
    hlsnap_snapshot_release(without);
    hlsnap_snapshot_release(with_zeros);
    hlsnap_sandbox_destroy(sb);
    end();
}

/* An optional map that is not there: what snapshots say of its pages is left alone, also by restores in place. */
static void optional_and_missing(void) {
    hlsnap_map map = map_of("o", HLSNAP_MAP_PRIVATE, file_of("optional", 600 * 4096));
    hlsnap_sandbox *sb, *other = NULL;
    hlsnap_snapshot *s[3];
    uint64_t at;
    uint32_t i;
    begin();
    map.optional = true;
    sb = with(&map, 1);
    at = found(sb, "o");
    for (i = 0; i < 3; i++) {
        CHECK_EQ(poke(sb, at + (599 - i) * 4096, i), HLSNAP_OK);
        CHECK_EQ(poke(sb, region_gva(sb, HLSNAP__HEAP), i + 1), HLSNAP_OK);
        s[i] = take(sb);
    }
    CHECK_EQ(from(s[0], NULL, 0, &other), HLSNAP_OK);
    CHECK_EQ(found(other, "o"), 0);
    map.name = "another";
    CHECK_EQ(hlsnap_sandbox_map(other, &map, &err), HLSNAP_OK);
    CHECK(found(other, "another") > at + 600 * 4096); /* its place is kept */
    CHECK_EQ(hlsnap_sandbox_unmap(other, "another", &err), HLSNAP_OK);
    map.name = "o";
    for (i = 0; i < 12; i++) {
        restore(other, s[i % 3]);
        CHECK_EQ(peek(other, region_gva(sb, HLSNAP__HEAP)), i % 3 + 1);
        CHECK_EQ(poke(other, at, 1), HLSNAP_ERR_FAULT);
    }
    restore(other, s[1]);
    CHECK_EQ(hlsnap_sandbox_map(other, &map, &err), HLSNAP_OK);
    CHECK_EQ(peek(other, at + 599 * 4096), file_word(599 * 4096)); /* the host's, until the next restore */
    restore(other, s[1]);
    CHECK(peek(other, at + 599 * 4096) == 0 && peek(other, at + 598 * 4096) == 1 && peek(other, at + 597 * 4096) == file_word(597 * 4096));
    for (i = 0; i < 3; i++) hlsnap_snapshot_release(s[i]);
    hlsnap_sandbox_destroy(sb);
    hlsnap_sandbox_destroy(other);
    end();
}

/* ---- where they lie ---- */

static void places(void) {
    hlsnap_map map[3];
    hlsnap_sandbox *sb, *other = NULL;
    hlsnap_snapshot *bare, *three;
    uint64_t a, b, c;
    begin();
    map[0] = map_of("a", HLSNAP_MAP_READ, file_of("a", 3 * 4096));
    map[1] = map_of("b", HLSNAP_MAP_PRIVATE, file_of("b", (2u << 20) - 4096));
    map[2] = map_of("c", HLSNAP_MAP_READ, path_of("b"));
    sb = with(NULL, 0);
    bare = take(sb);
    CHECK_EQ(hlsnap_sandbox_map(sb, &map[0], &err), HLSNAP_OK);
    CHECK_EQ(hlsnap_sandbox_map(sb, &map[1], &err), HLSNAP_OK);
    CHECK_EQ(hlsnap_sandbox_map(sb, &map[1], &err), HLSNAP_ERR_DUPLICATE);
    a = found(sb, "a");
    b = found(sb, "b");
    CHECK(a == HLSNAP__MAPS_GVA && b == a + HLSNAP__MAPS_STEP);
    CHECK_EQ(hlsnap_sandbox_unmap(sb, "a", &err), HLSNAP_OK);
    CHECK_EQ(poke(sb, a, 1), HLSNAP_ERR_FAULT);
    CHECK_STR(err.region, "unmapped");
    restore(sb, bare);
    CHECK(found(sb, "a") == 0 && found(sb, "b") == b); /* what a host gave stays */
    CHECK_EQ(peek(sb, b + 8), file_word(8));
    CHECK_EQ(hlsnap_sandbox_map(sb, &map[2], &err), HLSNAP_OK); /* in the gap: a page is left behind it */
    c = found(sb, "c");
    CHECK_EQ(c, a);
    CHECK_EQ(hlsnap_sandbox_map(sb, &map[0], &err), HLSNAP_OK);
    CHECK_EQ(found(sb, "a"), b + HLSNAP__MAPS_STEP);
    CHECK(peek(sb, found(sb, "a")) == file_word(0) && peek(sb, c + (2u << 20) - 4096 - 8) == file_word((2u << 20) - 4096 - 8));
    three = take(sb);
    /* another order, another address of each; then to the snapshot, which has its own */
    map[1].mode = HLSNAP_MAP_PRIVATE;
    CHECK_EQ(from(bare, map, 3, &other), HLSNAP_OK);
    CHECK(found(other, "a") == a && found(other, "b") == b && found(other, "c") == b + HLSNAP__MAPS_STEP);
    CHECK_EQ(poke(other, b, 3), HLSNAP_OK);
    restore(other, three);
    CHECK(found(other, "a") == b + HLSNAP__MAPS_STEP && found(other, "b") == b && found(other, "c") == a);
    CHECK(peek(other, b) == file_word(0) && peek(other, a) == file_word(0));
    restore(other, bare);
    CHECK(found(other, "b") == b && peek(other, b) == file_word(0));
    hlsnap_snapshot_release(bare);
    hlsnap_snapshot_release(three);
    hlsnap_sandbox_destroy(sb);
    hlsnap_sandbox_destroy(other);
    end();
}

/* ---- what is refused ---- */

#define REFUSED(code, text) do { \
        if (!CHECK_EQ(hlsnap_sandbox_map(sb, &m, &err), code) || !CHECK(strstr(err.msg, text))) printf("# %s\n", err.msg); \
        CHECK_EQ(call0(sb, "nop"), HLSNAP_OK); \
        m = map_of("m", HLSNAP_MAP_READ, path); \
    } while (0)
static void refused_fields(void) {
    static char long_name[80];
    uint8_t *data = pages_of(2);
    const char *path = file_of("file", 3 * 4096 + 1);
    hlsnap_sandbox *sb;
    hlsnap_map m;
    begin();
    memset(long_name, 'a', 70);
    sb = with(NULL, 0);
    m = map_of(NULL, HLSNAP_MAP_READ, path);
    REFUSED(HLSNAP_ERR_ARG, "no name");
    m.name = "";
    REFUSED(HLSNAP_ERR_ARG, "name ''");
    m.name = "a b";
    REFUSED(HLSNAP_ERR_ARG, "name 'a b'");
    m.name = long_name;
    REFUSED(HLSNAP_ERR_ARG, "too long");
    m.data = data;
    REFUSED(HLSNAP_ERR_ARG, "one of path and data");
    m.path = NULL;
    REFUSED(HLSNAP_ERR_ARG, "one of path and data");
    m.mode = (hlsnap_map_mode)3;
    REFUSED(HLSNAP_ERR_ARG, "mode 3");
    m.mode = (hlsnap_map_mode)-1;
    REFUSED(HLSNAP_ERR_ARG, "mode 4294967295");
    m.digest = "sha256:12";
    REFUSED(HLSNAP_ERR_ARG, "digest");
    m.digest = DIGEST "0";
    REFUSED(HLSNAP_ERR_ARG, "digest");
    m.mode = HLSNAP_MAP_SHARED;
    m.capture = true;
    REFUSED(HLSNAP_ERR_ARG, "captured");
    m.capture = m.optional = true;
    REFUSED(HLSNAP_ERR_ARG, "captured");
    hlsnap_sandbox_destroy(sb);
    free(data);
    end();
}

static void refused_files(void) {
    const char *path = file_of("file", 3 * 4096 + 1);
    hlsnap_sandbox *sb;
    hlsnap_map m = map_of("m", HLSNAP_MAP_READ, path);
    begin();
    sb = with(NULL, 0);
    m.path = path_of("none");
    REFUSED(HLSNAP_ERR_OS, "no such file");
    CHECK_EQ(err.os_errno, ENOENT);
    m.path = dir;
    REFUSED(HLSNAP_ERR_ARG, "no regular file");
    m.path = "/dev/zero";
    REFUSED(HLSNAP_ERR_ARG, "no regular file");
    sh("mkfifo %s", path_of("fifo"));
    m.path = path_of("fifo");
    REFUSED(HLSNAP_ERR_ARG, "no regular file");
    sh("ln -s %s/nowhere %s", dir, path_of("link"));
    m.path = path_of("link");
    REFUSED(HLSNAP_ERR_OS, "no such file");
    m.path = file_of("empty", 0);
    REFUSED(HLSNAP_ERR_ARG, "of a file of 0");
    m.offset = 4096 * 4;
    REFUSED(HLSNAP_ERR_ARG, "from 16384 on of a file of 12289");
    m.offset = 1;
    REFUSED(HLSNAP_ERR_ARG, "from 1 on");
    m.size = 4096 * 4;
    REFUSED(HLSNAP_ERR_ARG, "16384 bytes from 0 on of a file of 12289");
    m.size = 100;
    REFUSED(HLSNAP_ERR_ARG, "100 bytes");
    m.offset = UINT64_MAX - 4095;
    REFUSED(HLSNAP_ERR_ARG, "18446744073709547520");
    m.size = UINT64_MAX;
    REFUSED(HLSNAP_ERR_ARG, "18446744073709551615");
    hlsnap_sandbox_destroy(sb);
    end();
}

static void refused_memory(void) {
    uint8_t *data = pages_of(2);
    const char *path = file_of("file", 3 * 4096 + 1);
    hlsnap_sandbox *sb;
    hlsnap_map m;
    uint32_t i;
    begin();
    sb = with(NULL, 0);
    m = memory_of("m", HLSNAP_MAP_READ, data + 1, 4096);
    REFUSED(HLSNAP_ERR_ARG, "multiples of 4096");
    m = memory_of("m", HLSNAP_MAP_READ, data, 0);
    REFUSED(HLSNAP_ERR_ARG, "0 bytes of memory");
    m = memory_of("m", HLSNAP_MAP_READ, data, 5000);
    REFUSED(HLSNAP_ERR_ARG, "5000 bytes of memory");
    m = memory_of("m", HLSNAP_MAP_READ, data, UINT64_MAX - 4095);
    REFUSED(HLSNAP_ERR_LIMIT, "18446744073709547520 bytes");
    m = memory_of("m", HLSNAP_MAP_READ, data, 4096);
    m.offset = 4096;
    REFUSED(HLSNAP_ERR_ARG, "offset 4096");
    CHECK_EQ(hlsnap_sandbox_map(sb, NULL, &err), HLSNAP_ERR_ARG);
    CHECK_EQ(hlsnap_sandbox_map(NULL, &m, &err), HLSNAP_ERR_ARG);
    CHECK_EQ(hlsnap_sandbox_unmap(sb, NULL, &err), HLSNAP_ERR_ARG);
    CHECK_EQ(hlsnap_sandbox_unmap(sb, "m", &err), HLSNAP_ERR_NOT_FOUND);
    for (i = 0; i < HLSNAP_MAX_MAPS; i++) {
        char name[8];
        snprintf(name, sizeof(name), "m%u", i);
        m.name = name;
        CHECK_EQ(hlsnap_sandbox_map(sb, &m, &err), HLSNAP_OK);
    }
    m.name = "more";
    CHECK_EQ(hlsnap_sandbox_map(sb, &m, &err), HLSNAP_ERR_LIMIT);
    CHECK(strstr(err.msg, "more than 16 maps"));
    CHECK_EQ(peek(sb, found(sb, "m15")), file_word(0));
    hlsnap_sandbox_destroy(sb);
    free(data);
    end();
}

/* Sparse files: 64 GiB are all that there is room for, and one of 16 GiB more is not. */
static void room(void) {
    hlsnap_map m[2];
    hlsnap_sandbox *sb;
    begin();
    m[0] = map_of("half", HLSNAP_MAP_READ, file_of("half", 0));
    m[1] = map_of("rest", HLSNAP_MAP_READ, file_of("rest", 0));
    CHECK_EQ(truncate(m[0].path, 40ll << 30), 0);
    CHECK_EQ(truncate(m[1].path, 30ll << 30), 0);
    sb = with(m, 1);
    CHECK_EQ(peek(sb, found(sb, "half") + (40ull << 30) - 8), 0);
    CHECK_EQ(hlsnap_sandbox_map(sb, &m[1], &err), HLSNAP_ERR_LIMIT);
    CHECK(strstr(err.msg, "32212254720 bytes"));
    m[1].size = 20ull << 30;
    CHECK_EQ(hlsnap_sandbox_map(sb, &m[1], &err), HLSNAP_OK);
    CHECK_EQ(peek(sb, found(sb, "rest") + (20ull << 30) - 8), 0);
    m[1].name = "big";
    m[1].size = 65ull << 30;
    CHECK_EQ(truncate(m[1].path, 66ll << 30), 0);
    CHECK_EQ(hlsnap_sandbox_map(sb, &m[1], &err), HLSNAP_ERR_LIMIT);
    m[1].size = (16ull << 30) + 4096;
    m[1].capture = true;
    CHECK_EQ(hlsnap_sandbox_map(sb, &m[1], &err), HLSNAP_ERR_LIMIT);
    CHECK_EQ(call0(sb, "nop"), HLSNAP_OK);
    hlsnap_sandbox_destroy(sb);
    end();
}

/* A file that shrinks is an error of its own wherever the host looks at it, and never a signal. */
static void shrinking_file(void) {
    const char *path = file_of("shrinks", 8 * 4096);
    hlsnap_map map[2];
    hlsnap_sandbox *sb, *other = NULL, *first = NULL;
    hlsnap_snapshot *s, *changed, *again;
    uint64_t at, p, v;
    begin();
    map[0] = map_of("r", HLSNAP_MAP_READ, path);
    map[1] = map_of("p", HLSNAP_MAP_PRIVATE, path);
    sb = with(map, 2);
    at = found(sb, "r");
    p = found(sb, "p");
    s = take(sb);
    CHECK_EQ(poke(sb, p + 7 * 4096, 1), HLSNAP_OK);
    changed = take(sb);
    CHECK_EQ(from(changed, map, 2, &other), HLSNAP_OK);
    restore(sb, s);
    CHECK_EQ(poke(sb, p + 7 * 4096, 1), HLSNAP_OK);
    CHECK_EQ(poke(other, p + 7 * 4096, 2), HLSNAP_OK);
    CHECK_EQ(from(s, map, 2, &first), HLSNAP_OK);
    CHECK_EQ(poke(first, p + 7 * 4096, 3), HLSNAP_OK);
    CHECK_EQ(truncate(path, 4096), 0);
    again = NULL;
    CHECK_EQ(hlsnap_sandbox_snapshot(first, &again, &err), HLSNAP_ERR_CHANGED); /* a page that no snapshot had */
    CHECK(!again && strstr(err.msg, "'p'") && strstr(err.msg, "4096 bytes, not 32768 any more"));
    CHECK_EQ(hlsnap_sandbox_get_state(first), HLSNAP_POISONED);
    hlsnap_sandbox_destroy(first);
    CHECK_EQ(hlsnap_sandbox_snapshot(other, &again, &err), HLSNAP_ERR_CHANGED); /* what it wrote is gone, too */
    CHECK(!again);
    CHECK_EQ(hlsnap_sandbox_get_state(other), HLSNAP_POISONED);
    CHECK_EQ(hlsnap_sandbox_read(sb, at + 4096, &v, 8, &err), HLSNAP_ERR_CHANGED);
    CHECK_EQ(hlsnap_sandbox_read(sb, at, &v, 8, &err), HLSNAP_OK);
    CHECK_EQ(hlsnap_sandbox_write(sb, p + 6 * 4096, &v, 8, &err), HLSNAP_ERR_CHANGED);
    CHECK_EQ(hlsnap_sandbox_read(sb, p + 7 * 4096, &v, 8, &err), HLSNAP_ERR_CHANGED); /* Linux takes private pages, too */
    CHECK_EQ(hlsnap_sandbox_restore(sb, s, &err), HLSNAP_ERR_CHANGED); /* what it is put back to is gone */
    CHECK_EQ(hlsnap_sandbox_get_state(sb), HLSNAP_POISONED);
    hlsnap_sandbox_destroy(other);
    CHECK_EQ(from(changed, map, 2, &other), HLSNAP_ERR_CONTRACT); /* it is shorter now */
    file_of("shrinks", 8 * 4096);
    restore(sb, s);
    CHECK_EQ(peek(sb, p + 7 * 4096), file_word(7 * 4096));
    hlsnap_sandbox_destroy(sb);
    hlsnap_snapshot_release(s);
    hlsnap_snapshot_release(changed);
    end();
}

/* ---- with a pool ---- */

/* A captured layer is shared by all snapshots that have the map: however many layers come, it is not copied into another one. */
static void captured_stays_apart(void) {
    hlsnap_map map = map_of("m", HLSNAP_MAP_READ, file_of("apart", 2 * 4096));
    const hlsnap__layer *layer;
    hlsnap_sandbox *sb;
    hlsnap_snapshot *s;
    uint32_t i, k, there;
    uint64_t at;
    begin();
    map.capture = true;
    sb = start(GUEST_ALL, 400);
    CHECK_EQ(hlsnap_sandbox_map(sb, &map, &err), HLSNAP_OK);
    at = region_gva(sb, HLSNAP__HEAP);
    layer = sb->memory.maps[0].layer;
    for (i = 0; i < 80; i++) {
        for (k = 0; k < 3; k++) CHECK_EQ(poke(sb, at + (i * 4 + k) * 4096, i + 1), HLSNAP_OK);
        s = take(sb);
        for (k = there = 0; k < s->num_layers; k++) there += s->layers[k] == layer;
        if (!CHECK_EQ(there, 1)) i = 80;
        CHECK(s->num_layers <= 40);
        hlsnap_snapshot_release(s);
    }
    hlsnap_sandbox_destroy(sb);
    end();
}

/* Where maps lie: apart from each other, also when they end with 2 MiB; mapped once more, where a snapshot here has them. */
static void places_again(void) {
    static uint8_t data[2][2u << 20] __attribute__((__aligned__(4096)));
    hlsnap_map map[2];
    hlsnap_sandbox *sb;
    hlsnap_snapshot *s;
    uint64_t a, b, v;
    begin();
    memset(map, 0, sizeof(map));
    map[0].name = "a", map[0].data = data[0], map[0].size = sizeof(data[0]), map[0].mode = HLSNAP_MAP_READ;
    map[1].name = "b", map[1].data = data[1], map[1].size = sizeof(data[1]), map[1].mode = HLSNAP_MAP_READ;
    sb = with(map, 2);
    a = found(sb, "a"), b = found(sb, "b");
    CHECK(b >= a + sizeof(data[0]) + 4096);
    CHECK_EQ(hlsnap_sandbox_read(sb, a + sizeof(data[0]) - 8, &v, 8, &err), HLSNAP_OK);
    CHECK_EQ(hlsnap_sandbox_read(sb, a + sizeof(data[0]) - 8, &v, 9, &err), HLSNAP_ERR_ARG);
    s = take(sb);
    CHECK_EQ(hlsnap_sandbox_unmap(sb, "a", &err), HLSNAP_OK);
    CHECK_EQ(hlsnap_sandbox_map(sb, &map[0], &err), HLSNAP_OK);
    CHECK_EQ(found(sb, "a"), a);
    restore(sb, s);
    CHECK(found(sb, "a") == a && found(sb, "b") == b);
    hlsnap_snapshot_release(s);
    hlsnap_sandbox_destroy(sb);
    end();
}

/* A memfd can be cut as any file, unless it was sealed against that. */
static void shrinking_memfd(void) {
    unsigned sealing;
    begin();
    for (sealing = 0; sealing < 2; sealing++) {
        const int fd = (int)syscall(SYS_memfd_create, "cut", 2 * sealing /* MFD_ALLOW_SEALING */);
        char path[64];
        hlsnap_map map[2];
        hlsnap_sandbox *sb;
        uint64_t v;
        CHECK_EQ(ftruncate(fd, 8 * 4096), 0);
        snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
        map[0] = map_of("r", HLSNAP_MAP_READ, path);
        map[1] = map_of("p", HLSNAP_MAP_PRIVATE, path);
        sb = with(map, 2);
        CHECK_EQ(peek(sb, found(sb, "r") + 4096), 0);
        CHECK_EQ(poke(sb, found(sb, "p") + 4096, 1), HLSNAP_OK);
        CHECK_EQ(ftruncate(fd, 4096), 0);
        CHECK_EQ(hlsnap_sandbox_read(sb, found(sb, "r") + 4096, &v, 8, &err), HLSNAP_ERR_CHANGED);
        CHECK_EQ(hlsnap_sandbox_read(sb, found(sb, "p") + 4096, &v, 8, &err), HLSNAP_ERR_CHANGED);
        hlsnap_sandbox_destroy(sb);
        close(fd);
    }
    end();
}

/* Who comes next has the desc's maps, whatever the last tenant unmapped; the desc's path was copied. */
static void unmapped_in_a_pool(void) {
    hlsnap_sandbox_desc d = host_desc();
    hlsnap_pool_desc desc = HLSNAP_ZERO;
    hlsnap_pool_stats stats;
    hlsnap_map map;
    hlsnap_sandbox *sb, *a = NULL;
    hlsnap_snapshot *s;
    hlsnap_pool *pool = NULL;
    uint32_t i;
    char path[300];
    begin();
    snprintf(path, sizeof(path), "%s", file_of("pool", 8 * 4096));
    map = map_of("p", HLSNAP_MAP_PRIVATE, path);
    sb = with(NULL, 0);
    s = take(sb);
    hlsnap_sandbox_destroy(sb);
    d.maps = &map;
    d.num_maps = 1;
    desc.sandbox = &d;
    CHECK_EQ(hlsnap_pool_create(&desc, &pool, &err), HLSNAP_OK);
    memset(path, 'x', sizeof(path) - 1); /* was copied */
    for (i = 0; i < 3; i++) {
        CHECK_EQ(hlsnap_pool_acquire(pool, s, &a, &err), HLSNAP_OK);
        CHECK(found(a, "p") != 0);
        if (i == 1) CHECK_EQ(hlsnap_sandbox_unmap(a, "p", &err), HLSNAP_OK);
        hlsnap_pool_release(pool, a);
    }
    hlsnap_pool_get_stats(pool, &stats);
    CHECK(stats.made == 2 && stats.ended == 1);
    hlsnap_pool_destroy(pool);
    hlsnap_snapshot_release(s);
    end();
}

/* Its sandboxes have the desc's maps, each its own pages of the private ones; who changes that is ended. */
static void in_a_pool(void) {
    hlsnap_sandbox_desc d;
    hlsnap_pool_desc desc = HLSNAP_ZERO;
    hlsnap_pool_stats stats;
    hlsnap_map map[17];
    hlsnap_sandbox *sb, *a = NULL, *b = NULL;
    hlsnap_snapshot *s;
    hlsnap_pool *pool = NULL;
    uint64_t at;
    uint32_t i;
    begin();
    map[0] = map_of("p", HLSNAP_MAP_PRIVATE, file_of("pool", 8 * 4096));
    sb = with(map, 1);
    s = take(sb);
    hlsnap_sandbox_destroy(sb);
    d = host_desc();
    d.maps = map;
    d.num_maps = 1;
    desc.sandbox = &d;
    desc.max_sandboxes = 2;
    CHECK_EQ(hlsnap_pool_create(&desc, &pool, &err), HLSNAP_OK);
    memset(map, 0, sizeof(map)); /* was copied */
    for (i = 0; i < 20; i++) {
        CHECK_EQ(hlsnap_pool_acquire(pool, s, &a, &err), HLSNAP_OK);
        CHECK_EQ(hlsnap_pool_acquire(pool, s, &b, &err), HLSNAP_OK);
        at = found(a, "p");
        CHECK(peek(a, at) == file_word(0) && peek(b, at) == file_word(0));
        CHECK_EQ(poke(a, at, 1), HLSNAP_OK);
        CHECK_EQ(poke(b, at, 2), HLSNAP_OK);
        CHECK(peek(a, at) == 1 && peek(b, at) == 2);
        if (i == 10) CHECK_EQ(hlsnap_sandbox_unmap(a, "p", &err), HLSNAP_OK);
        if (i == 15) {
            const hlsnap_map more = map_of("more", HLSNAP_MAP_READ, path_of("pool"));
            CHECK_EQ(hlsnap_sandbox_map(b, &more, &err), HLSNAP_OK);
        }
        hlsnap_pool_release(pool, a);
        hlsnap_pool_release(pool, b);
    }
    hlsnap_pool_get_stats(pool, &stats);
    CHECK_EQ(stats.made, 4);
    hlsnap_pool_destroy(pool);
    d.maps = map;
    for (i = 0; i < 17; i++) map[i] = map_of("m", HLSNAP_MAP_READ, path_of("pool"));
    d.num_maps = 17;
    CHECK_EQ(hlsnap_pool_create(&desc, &pool, &err), HLSNAP_ERR_LIMIT);
    d.num_maps = 1;
    map[0].name = NULL; /* said by the first one that is made */
    CHECK_EQ(hlsnap_pool_create(&desc, &pool, &err), HLSNAP_OK);
    CHECK_EQ(hlsnap_pool_acquire(pool, s, &a, &err), HLSNAP_ERR_ARG);
    hlsnap_pool_destroy(pool);
    d.maps = NULL;
    CHECK_EQ(hlsnap_pool_create(&desc, &pool, &err), HLSNAP_ERR_ARG);
    hlsnap_snapshot_release(s);
    end();
}

/* ---- from inside of a host function ---- */

static hlsnap_sandbox *inside;
static void inside_map(void) {
    const hlsnap_map map = map_of("late", HLSNAP_MAP_PRIVATE, path_of("late"));
    uint64_t v = 0;
    CHECK_EQ(hlsnap_sandbox_map(inside, &map, &err), HLSNAP_OK);
    CHECK_EQ(hlsnap_sandbox_read(inside, HLSNAP__MAPS_GVA, &v, 8, &err), HLSNAP_OK);
    CHECK_EQ(v, file_word(0));
    CHECK_EQ(hlsnap_sandbox_unmap(inside, "early", &err), HLSNAP_ERR_NOT_FOUND);
}
static void inside_unmap(void) { CHECK_EQ(hlsnap_sandbox_unmap(inside, "late", &err), HLSNAP_OK); }

static void states(void) {
    const hlsnap_map map = map_of("m", HLSNAP_MAP_READ, file_of("late", 2 * 4096));
    hlsnap_snapshot *s;
    int status;
    pid_t pid;
    begin();
    inside = with(NULL, 0);
    s = take(inside);
    on_hook = inside_map;
    CHECK_EQ(call0(inside, "hook"), HLSNAP_OK);
    CHECK_EQ(peek(inside, found(inside, "late") + 8), file_word(8));
    on_hook = inside_unmap;
    CHECK_EQ(call0(inside, "hook"), HLSNAP_OK);
    CHECK_EQ(found(inside, "late"), 0);
    hlsnap_sandbox_retire(inside);
    CHECK_EQ(hlsnap_sandbox_map(inside, &map, &err), HLSNAP_ERR_STATE);
    CHECK_EQ(hlsnap_sandbox_unmap(inside, "m", &err), HLSNAP_ERR_STATE);
    restore(inside, s);
    CHECK_EQ(hlsnap_sandbox_map(inside, &map, &err), HLSNAP_OK);
    pid = fork();
    if (pid == 0) {
        const bool ok = hlsnap_sandbox_unmap(inside, "m", &err) == HLSNAP_ERR_STATE &&
                        hlsnap_sandbox_map(inside, &map, &err) == HLSNAP_ERR_STATE;
        hlsnap_sandbox_destroy(inside);
        _exit(ok ? 0 : 1);
    }
    waitpid(pid, &status, 0);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    CHECK_EQ(peek(inside, found(inside, "m")), file_word(0));
    hv.fail[FAKE_MAP] = 1; /* the VM does not take one more: the sandbox is as it was */
    {
        const hlsnap_map more = map_of("more", HLSNAP_MAP_READ, map.path);
        CHECK_EQ(hlsnap_sandbox_map(inside, &more, &err), HLSNAP_ERR_HYPERVISOR);
        CHECK(found(inside, "more") == 0 && call0(inside, "nop") == HLSNAP_OK);
        CHECK_EQ(hlsnap_sandbox_map(inside, &more, &err), HLSNAP_OK);
    }
    hv.fail[FAKE_MAP] = 1; /* nor lets it one go: that cannot go on */
    CHECK_EQ(hlsnap_sandbox_unmap(inside, "more", &err), HLSNAP_ERR_HYPERVISOR);
    CHECK_EQ(hlsnap_sandbox_get_state(inside), HLSNAP_POISONED);
    restore(inside, s);
    CHECK_EQ(peek(inside, found(inside, "more")), file_word(0));
    hlsnap_snapshot_release(s);
    hlsnap_sandbox_destroy(inside);
    end();
}

static void cycles(void) {
    const hlsnap_map map = map_of("m", HLSNAP_MAP_PRIVATE, file_of("cycles", 20 * 4096));
    hlsnap_sandbox *sb;
    hlsnap_snapshot *s;
    balance before, after;
    uint32_t i, lines = 0;
    begin();
    sb = with(NULL, 0);
    s = take(sb);
    for (i = 0; i < 10000 && !test_bad; i++) {
        if (i == 100) before = balance_now(), lines = (uint32_t)count_lines("/proc/self/maps", "");
        CHECK_EQ(hlsnap_sandbox_map(sb, &map, &err), HLSNAP_OK);
        if (i % 10 == 0) CHECK_EQ(poke(sb, found(sb, "m") + 4096 * (i % 20), 1), HLSNAP_OK);
        if (i % 3) restore(sb, s);
        CHECK_EQ(hlsnap_sandbox_unmap(sb, "m", &err), HLSNAP_OK);
        if (i % 5) restore(sb, s);
    }
    after = balance_now();
    CHECK_EQ(after.live, before.live);
    CHECK_EQ(after.maps, before.maps);
    CHECK_EQ(after.fds, before.fds);
    CHECK((uint32_t)count_lines("/proc/self/maps", "") <= lines + 2);
    CHECK(sb->memory.num_hot < 100);
    hlsnap_snapshot_release(s);
    hlsnap_sandbox_destroy(sb);
    end();
}

/* ---- all of it at once, against a model: random maps, writes, snapshots, restores, starts ---- */

enum { M_READ, M_PRIVATE, M_MEMORY, M_SHARED, M_CAPTURED, M_CHANGED, NUM_M };
#define M_PAGES 40u
#define M_SIZE (M_PAGES * 4096u)
static hlsnap_map m_maps[NUM_M];
static uint8_t m_shared[M_SIZE] __attribute__((aligned(4096))), m_memory[M_SIZE] __attribute__((aligned(4096)));

typedef struct m_state { /* of a sandbox or a snapshot */
    bool has[NUM_M], given[NUM_M];
    uint64_t gva[NUM_M];
    uint8_t now[NUM_M][M_SIZE]; /* of those that have content of their own */
} m_state;
typedef struct m_taken { hlsnap_snapshot *s; m_state state; } m_taken;

static uint64_t m_seed;
static uint64_t m_below(uint64_t n) {
    m_seed = m_seed * 6364136223846793005ull + 1442695040888963407ull;
    return (m_seed >> 33) % n;
}
static bool m_stored(uint32_t i) { return i != M_READ && i != M_SHARED; }
static uint8_t m_first(uint32_t i, uint64_t at) { return i == M_MEMORY ? m_memory[at] : byte_of(at); }
static void m_pristine(m_state *st, uint32_t i) {
    uint64_t at;
    for (at = 0; at < M_SIZE; at++) st->now[i][at] = m_first(i, at);
}

/* All that the guest sees, and where. */
static void m_check(hlsnap_sandbox *sb, m_state *st) {
    static uint8_t seen[M_SIZE];
    uint32_t i;
    for (i = 0; i < NUM_M; i++) {
        const uint64_t gva = found(sb, m_maps[i].name);
        if (!CHECK_EQ(gva != 0, st->has[i]) || !st->has[i]) continue;
        if (st->gva[i]) CHECK_EQ(gva, st->gva[i]);
        st->gva[i] = gva;
        CHECK_EQ(hlsnap_sandbox_read(sb, gva, seen, M_SIZE, &err), HLSNAP_OK);
        if (i == M_SHARED) CHECK(memcmp(seen, m_shared, M_SIZE) == 0);
        else if (i == M_READ) CHECK(seen[0] == byte_of(0) && seen[M_SIZE - 1] == byte_of(M_SIZE - 1));
        else CHECK(memcmp(seen, st->now[i], M_SIZE) == 0);
        if (test_bad) printf("# map %s\n", m_maps[i].name);
    }
}

static void m_write(hlsnap_sandbox *sb, m_state *st) {
    const uint32_t i = (uint32_t)m_below(NUM_M), first = (uint32_t)m_below(M_PAGES), n = (uint32_t)m_below(3) ? 1 : (uint32_t)m_below(M_PAGES - first) + 1;
    static uint8_t zeros[4096];
    uint32_t p;
    if (!st->has[i] || !found(sb, m_maps[i].name)) return;
    for (p = first; p < first + n; p++) {
        uint8_t *model = i == M_SHARED ? m_shared : st->now[i], *at = model + p * 4096;
        const uint64_t gva = found(sb, m_maps[i].name) + p * 4096, v = m_below(UINT32_MAX);
        if (i == M_READ || i == M_CAPTURED) {
            CHECK_EQ(hlsnap_sandbox_write(sb, gva, zeros, 8, &err), HLSNAP_ERR_ARG);
            return;
        }
        if (m_below(8) == 0) {
            CHECK_EQ(hlsnap_sandbox_write(sb, gva, zeros, 4096, &err), HLSNAP_OK);
            memset(at, 0, 4096);
        } else {
            CHECK_EQ(poke(sb, gva + 8, v), HLSNAP_OK);
            hlsnap__put64(at + 8, v);
        }
    }
}

static void m_restored(m_state *st, const m_taken *t) {
    uint32_t i;
    for (i = 0; i < NUM_M; i++) {
        const bool moved = st->has[i] && t->state.has[i] && st->gva[i] != t->state.gva[i];
        if (t->state.has[i]) st->gva[i] = t->state.gva[i];
        else if (!st->given[i] || moved) st->gva[i] = 0;
        st->has[i] = t->state.has[i] || st->given[i];
        if (t->state.has[i]) memcpy(st->now[i], t->state.now[i], M_SIZE);
        else if (st->has[i] && m_stored(i)) m_pristine(st, i);
        if (!t->state.has[i]) st->gva[i] = 0; /* it may have had to make way */
    }
}
static bool m_allowed(const m_state *st, const m_taken *t) {
    uint32_t i;
    for (i = 0; i < NUM_M; i++)
        if (t->state.has[i] && !m_maps[i].capture && !st->given[i]) return false;
    return true;
}

static void m_step(hlsnap_sandbox **sb, m_state *st, m_taken *t, uint32_t num) {
    const uint32_t i = (uint32_t)m_below(NUM_M);
    m_taken *which = &t[m_below(num)];
    switch (m_below(6)) {
    case 0:
        if (st->has[i]) break;
        CHECK_EQ(hlsnap_sandbox_map(*sb, &m_maps[i], &err), HLSNAP_OK);
        st->has[i] = st->given[i] = true;
        st->gva[i] = 0;
        m_pristine(st, i);
        break;
    case 1:
        if (m_below(2)) break;
        CHECK_EQ(hlsnap_sandbox_unmap(*sb, m_maps[i].name, &err), st->has[i] ? HLSNAP_OK : HLSNAP_ERR_NOT_FOUND);
        st->has[i] = st->given[i] = false;
        break;
    case 2:
        hlsnap_snapshot_release(which->s);
        m_check(*sb, st);
        which->s = take(*sb);
        which->state = *st;
        break;
    case 3:
        if (!which->s) break;
        CHECK_EQ(hlsnap_sandbox_restore(*sb, which->s, &err), m_allowed(st, which) ? HLSNAP_OK : HLSNAP_ERR_CONTRACT);
        if (m_allowed(st, which)) m_restored(st, which);
        break;
    case 4:
        if (!which->s || m_below(3)) break;
        hlsnap_sandbox_destroy(*sb);
        memset(st, 0, sizeof(*st));
        memset(st->given, 1, NUM_M);
        st->given[M_CAPTURED] = st->given[M_CHANGED] = false; /* these come with the snapshot */
        memset(st->has, 1, NUM_M - 2);
        CHECK_EQ(from(which->s, m_maps, NUM_M - 2, sb), HLSNAP_OK);
        m_restored(st, which);
        break;
    default: m_write(*sb, st);
    }
}

static void model(void) {
    static m_state st[2];
    static m_taken taken[6];
    const char *ops = getenv("OPS"), *seed = getenv("SEED");
    const long n = ops ? atol(ops) : SANITIZED ? 3000 : 20000;
    hlsnap_sandbox *sb[2];
    uint64_t at;
    long i;
    begin();
    m_seed = seed ? strtoull(seed, NULL, 0) : 1;
    for (at = 0; at < M_SIZE; at++) m_memory[at] = (uint8_t)(at / 4096 % 3 ? 3 + at % 11 : 0);
    m_maps[M_READ] = map_of("r", HLSNAP_MAP_READ, file_of("model", M_SIZE));
    m_maps[M_PRIVATE] = map_of("p", HLSNAP_MAP_PRIVATE, m_maps[0].path);
    m_maps[M_MEMORY] = memory_of("m", HLSNAP_MAP_PRIVATE, m_memory, M_SIZE);
    m_maps[M_SHARED] = memory_of("s", HLSNAP_MAP_SHARED, m_shared, M_SIZE);
    m_maps[M_CAPTURED] = map_of("c", HLSNAP_MAP_READ, m_maps[0].path);
    m_maps[M_CHANGED] = map_of("d", HLSNAP_MAP_PRIVATE, m_maps[0].path);
    m_maps[M_CAPTURED].capture = m_maps[M_CHANGED].capture = true;
    memset(st, 0, sizeof(st));
    for (i = 0; i < 2; i++) sb[i] = with(NULL, 0);
    for (i = 0; i < n && !test_bad; i++) {
        const uint32_t k = (uint32_t)m_below(2);
        m_step(&sb[k], &st[k], taken, HLSNAP_COUNT(taken));
        if (m_below(4) == 0) m_check(sb[k], &st[k]);
        if (test_bad) printf("# operation %ld, SEED=%s\n", i, seed ? seed : "1");
    }
    for (i = 0; i < 2; i++) hlsnap_sandbox_destroy(sb[i]);
    for (i = 0; i < 6; i++) hlsnap_snapshot_release(taken[i].s);
    memset(taken, 0, sizeof(taken));
    end();
}

static const test_row tests[] = {TEST(read_file), TEST(private_file), TEST(private_end), TEST(shared_memory), TEST(contract), TEST(private_pages_are_stored),
                                 TEST(captured), TEST(captured_zeros), TEST(optional_and_missing), TEST(places), TEST(refused_fields), TEST(refused_files), TEST(refused_memory), TEST(room), TEST(shrinking_file), TEST(captured_stays_apart), TEST(places_again), TEST(shrinking_memfd), TEST(unmapped_in_a_pool), TEST(in_a_pool), TEST(states), TEST(cycles),
                                 TEST(model)};
int main(int argc, char **argv) {
    int r;
    if (!mkdtemp(dir)) return 1;
    r = (test_words = err.msg, TEST_MAIN(tests, argc, argv));
    sh("rm -rf %s", dir);
    return r;
}

/* test_layers.c - what saves share with what the layout holds, and the functions that keep a layout in order.

   cc:  cc -I.. test_layers.c -o test_layers -lcjson
   run: ./test_layers [NAME]                        makes directories named l* where it runs */
#define _GNU_SOURCE
#include <stdlib.h>
#include <unistd.h>

static long alloc_left = -1, alloc_live; /* allocations until one fails, -1 = none does; blocks in use */
static void *t_malloc(size_t n) {
    void *p = alloc_left >= 0 && __atomic_fetch_sub(&alloc_left, 1, __ATOMIC_RELAXED) == 0 ? NULL : malloc(n);
    __atomic_add_fetch(&alloc_live, p != NULL, __ATOMIC_RELAXED);
    return p;
}
static void t_free(void *p) {
    __atomic_sub_fetch(&alloc_live, p != NULL, __ATOMIC_RELAXED);
    free(p);
}
static void (*at_read)(int fd); /* called before each read of a file */
static ssize_t t_pread(int fd, void *to, size_t n, off_t at) {
    if (at_read) at_read(fd);
    return pread(fd, to, n, at);
}
#define pread(...) t_pread(__VA_ARGS__)
#define HLSNAP_MALLOC(n) t_malloc(n)
#define HLSNAP_FREE(p) t_free(p)
#define HLSNAP_IMPLEMENTATION
#include "hlsnap.h"
#include "hlsnap_kvm.h"
#include "hlsnap_oci.h"

#include "test.h"

#include "oci_make.h"

#include <glob.h>
#include <pthread.h>
#include <stdarg.h>
#include <sys/wait.h>

static hlsnap_error err;

/* What is repeated for the sake of chance is so by the plain test; sanitizers see as much in fewer rounds. */
static bool is_quick(void) {
#if defined(__SANITIZE_ADDRESS__)
    return true;
#else
    return getenv("QUICK") != NULL;
#endif
}

/* ---- helpers ---- */

static const char *fresh(void) {
    static char path[8][32];
    static int n;
    char *p = path[n % 8];
    snprintf(p, 32, "l%d", n++);
    CHECK_EQ(sh("rm -rf %s", p), 0);
    return p;
}

static hlsnap_result save(const char *dir, const char *tag, hlsnap_snapshot *s, char digest[72]) {
    hlsnap_oci_desc desc = HLSNAP_ZERO;
    hlsnap_oci_digest d;
    hlsnap_result r;
    desc.created = -1; /* so that the index is known to the byte */
    r = hlsnap_oci_save(dir, tag, s, &desc, &d, &err);
    if (r) printf("# %s\n", err.msg);
    else if (digest) memcpy(digest, d.text, sizeof(d.text));
    return r;
}

static hlsnap_snapshot *load(const char *dir, const char *ref) {
    hlsnap_snapshot *s = NULL;
    if (!CHECK_EQ(hlsnap_oci_load(dir, ref, NULL, &s, NULL, &err), HLSNAP_OK)) printf("# %s\n", err.msg);
    return s;
}

static int64_t bytes_of(const char *dir) {
    char pattern[80];
    glob_t g;
    struct stat st;
    int64_t sum = 0;
    size_t i;
    snprintf(pattern, sizeof(pattern), "%s/blobs/sha256/*", dir);
    if (glob(pattern, 0, NULL, &g) != 0) return 0;
    for (i = 0; i < g.gl_pathc; i++)
        if (stat(g.gl_pathv[i], &st) == 0) sum += st.st_size;
    globfree(&g);
    return sum;
}

static int num_blobs(const char *dir) {
    char pattern[80];
    glob_t g;
    int n;
    snprintf(pattern, sizeof(pattern), "%s/blobs/sha256/*", dir);
    n = glob(pattern, 0, NULL, &g) == 0 ? (int)g.gl_pathc : 0;
    globfree(&g);
    return n;
}

/* Every blob's name is its sha256, nothing else has a name, and fsck agrees. */
static void check_sound(const char *dir) {
    CHECK_EQ(sh("cd %s/blobs/sha256 && for f in *; do [ \"$(sha256sum < $f)\" = \"$f  -\" ] || exit 1; done", dir), 0);
    CHECK_EQ(sh("ls -A %s | grep -vxE 'blobs|index.json|oci-layout|.hlsnap.lock' && exit 1; exit 0", dir), 0);
    if (!CHECK_EQ(hlsnap_oci_fsck(dir, false, &err), HLSNAP_OK)) printf("# %s\n", err.msg);
}

static void path_of(const char *dir, const hlsnap_snapshot *loaded, uint32_t layer, char *to, size_t cap) {
    hlsnap__place *place = hlsnap__layer_place_get(loaded->layers[layer], 0);
    snprintf(to, cap, "%s/blobs/sha256/%s", dir, place ? place->memory + 7 : "none");
    hlsnap__place_release(place);
}

static uint32_t layers_of(const char *dir, const char *ref) {
    hlsnap_oci_info info;
    CHECK_EQ(hlsnap_oci_get_info(dir, ref, &info, &err), HLSNAP_OK);
    return info.layers;
}

/* Edits the manifest that an entry leads to, which gets another digest and size. */
static void edit_manifest(const char *dir, const char *digest, const char *script) {
    CHECK_EQ(sh("cd %s && sed '%s' blobs/sha256/%s > m && ! cmp -s m blobs/sha256/%s && d=$(sha256sum < m | cut -d' ' -f1) && "
                "n=$(wc -c < m) && mv m blobs/sha256/$d && sed -i \"s|%s\\(\\\",\\\"size\\\":\\)[0-9]*|sha256:$d\\1$n|\" index.json",
                dir, script, digest + 7, digest + 7, digest), 0);
}

/* The memory digest of the blob that a layer was saved to or loaded from. */
static void memory_of(const hlsnap_snapshot *s, uint32_t layer, char to[72]) {
    hlsnap__place *place = hlsnap__layer_place_get(s->layers[layer], 0);
    if (CHECK(place != NULL)) memcpy(to, place->memory, 72);
    hlsnap__place_release(place);
}

/* Whether an open file has that name, at the end of its path. */
static bool is_file(int fd, const char *name) {
    char link[64], path[300];
    ssize_t n;
    snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
    n = readlink(link, path, sizeof(path) - 1);
    path[n < 0 ? 0 : n] = 0;
    return n >= (ssize_t)strlen(name) && strcmp(path + n - strlen(name), name) == 0;
}

/* ---- deltas ---- */

static void delta_of_a_loaded_snapshot(void) {
    const char *dir = fresh();
    hlsnap_snapshot *s = large(200, 1), *base, *next, *t;
    char d1[72], d2[72];
    int64_t before;
    CHECK_EQ(save(dir, "v1", s, d1), 0);
    base = load(dir, "v1");
    next = derive(base, 30, 5, 2);
    before = bytes_of(dir);
    CHECK_EQ(save(dir, "v2", next, d2), 0);
    CHECK_EQ(num_blobs(dir), 8);                           /* memory, chunks, config and manifest, twice */
    CHECK(bytes_of(dir) - before < 5 * 4096 + 32 + 8192);  /* five pages and what describes them */
    CHECK_EQ(layers_of(dir, "v1"), 1);
    CHECK_EQ(layers_of(dir, "v2"), 2);
    t = load(dir, "v2");
    if (t) check_same(next, t);
    CHECK_EQ(save(dir, "v3", t, d1), 0); /* loaded and saved: the same bytes */
    CHECK_STR(d1, d2);
    CHECK_EQ(num_blobs(dir), 8);
    check_sound(dir);
    hlsnap_snapshot_release(t);
    hlsnap_snapshot_release(next);
    hlsnap_snapshot_release(base);
    hlsnap_snapshot_release(s);
}

static void delta_without_loading(void) { /* what a save wrote is known to its layers */
    const char *dir = fresh();
    hlsnap_snapshot *s[5], *t;
    char digest[72], again[72];
    int i;
    s[0] = large(200, 1);
    CHECK_EQ(save(dir, "v0", s[0], NULL), 0);
    for (i = 1; i < 5; i++) {
        char tag[16];
        snprintf(tag, sizeof(tag), "v%d", i);
        s[i] = derive(s[i - 1], 20 + 10 * (uint32_t)i, 4, 50 + (uint64_t)i);
        CHECK_EQ(save(dir, tag, s[i], digest), 0);
        CHECK_EQ(layers_of(dir, tag), (uint32_t)i + 1);
        CHECK_EQ(save(dir, tag, s[i], again), 0);
        CHECK_STR(digest, again);
        t = load(dir, tag);
        if (t) check_same(s[i], t);
        hlsnap_snapshot_release(t);
    }
    check_sound(dir);
    CHECK_EQ(num_blobs(dir), 20);
    for (i = 0; i < 5; i++) hlsnap_snapshot_release(s[i]);
}

/* Layers that were never saved become one, whatever lies below them. */
static void unsaved_layers_become_one(void) {
    const char *dir = fresh();
    hlsnap_snapshot *s = large(200, 1), *a, *b, *t;
    CHECK_EQ(save(dir, "v0", s, NULL), 0);
    a = derive(s, 40, 4, 7);
    b = derive(a, 42, 6, 8);
    CHECK_EQ(save(dir, "v1", b, NULL), 0);
    CHECK_EQ(layers_of(dir, "v1"), 2);
    t = load(dir, "v1");
    if (t) check_same(b, t);
    CHECK(t && t->layers[1]->pages == 8);
    check_sound(dir);
    hlsnap_snapshot_release(t);
    hlsnap_snapshot_release(b);
    hlsnap_snapshot_release(a);
    hlsnap_snapshot_release(s);
}

/* Pages of the memory layers that a layout holds. */
static uint64_t pages_of(const char *dir) {
    char pattern[80];
    glob_t g;
    struct stat st;
    uint64_t sum = 0;
    size_t i;
    snprintf(pattern, sizeof(pattern), "%s/blobs/sha256/*", dir);
    if (glob(pattern, 0, NULL, &g) != 0) return 0;
    for (i = 0; i < g.gl_pathc; i++) {
        FILE *f = fopen(g.gl_pathv[i], "r");
        const int c = f ? fgetc(f) : EOF;
        if (f) fclose(f);
        if (c != '{' && stat(g.gl_pathv[i], &st) == 0 && st.st_size % 4096 == 0) sum += (uint64_t)st.st_size / 4096;
    }
    globfree(&g);
    return sum;
}

/* A chain of small deltas: the base is written once, and what stands over it is merged now and then. Saving one again, or what was
   loaded, gives the same bytes. */
static void small_layers_are_merged(void) {
    const char *dir = fresh();
    hlsnap_snapshot *s = large(240, 1), *next, *t, *kept = NULL;
    uint32_t i, layers, most = 0;
    char digest[72], again[72];
    uint64_t pages;
    CHECK_EQ(save(dir, "x", s, NULL), 0);
    for (i = 1; i <= 100; i++) {
        next = derive(s, 16 + i * 7 % 240, 1, 90 + i);
        hlsnap_snapshot_release(s);
        s = next;
        CHECK_EQ(save(dir, "x", s, digest), 0);
        layers = layers_of(dir, "x");
        if (layers > most) most = layers;
        if (i < 32) CHECK_EQ(layers, i + 1);
        if (i == 50) CHECK(pages_of(dir) - 244 <= 50 * 3 / 2);
        if (i == 7) kept = hlsnap_snapshot_retain(s);
        if (i % 9) continue;
        CHECK_EQ(save(dir, "x", s, again), 0);
        CHECK_STR(digest, again);
        t = load(dir, "x");
        if (!t) continue;
        check_same(s, t);
        CHECK_EQ(save(dir, "x", t, again), 0);
        CHECK_STR(digest, again);
        hlsnap_snapshot_release(t);
    }
    CHECK_EQ(most, HLSNAP__LAYERS);
    CHECK(pages_of(dir) - 244 <= 200); /* far from a second base */
    pages = pages_of(dir);
    CHECK_EQ(save(dir, "old", kept, NULL), 0); /* whose layers were merged into others since */
    CHECK(pages_of(dir) <= pages + 7);
    t = load(dir, "old");
    if (t) check_same(kept, t);
    hlsnap_snapshot_release(t);
    hlsnap_snapshot_release(kept);
    for (; i <= 130; i++) {
        next = derive(s, 16 + i * 7 % 240, 1, 90 + i);
        hlsnap_snapshot_release(s);
        s = next;
        CHECK_EQ(save(dir, "x", s, NULL), 0);
        layers = layers_of(dir, "x");
        if (layers == 1) break; /* more than half the base */
    }
    CHECK_EQ(i, 123);
    check_sound(dir);
    hlsnap_snapshot_release(s);
}

/* Layers of which little is left are merged as well, before there are many: they held more than twice what is shown. */
static void overwritten_pages_go(void) {
    const char *dir = fresh();
    hlsnap_snapshot *s = large(250, 1), *next, *t;
    hlsnap_oci_info info;
    uint32_t i;
    CHECK_EQ(save(dir, "x", s, NULL), 0);
    for (i = 0; i < 40; i++) { /* all but the first page of it, the next time, and so on from the second one */
        next = derive(s, 20 + i, 40, 90 + i);
        hlsnap_snapshot_release(s);
        s = next;
        CHECK_EQ(save(dir, "x", s, NULL), 0);
        CHECK_EQ(hlsnap_oci_get_info(dir, "x", &info, &err), 0);
        CHECK(info.bytes < (254 + 2 * 80 + 64 + 40) * P + 65536);
    }
    CHECK(layers_of(dir, "x") < 12);
    t = load(dir, "x");
    if (t) check_same(s, t);
    CHECK_EQ(hlsnap_oci_untag(dir, "none", &err), HLSNAP_ERR_NOT_FOUND);
    hlsnap_snapshot_release(t);
    check_sound(dir);
    hlsnap_snapshot_release(s);
}

/* More runs than a config may list, all of one page and all gaps alike: no more gaps are stored than need be. */
static void joined_no_more_than_needed(void) {
    const char *dir = fresh();
    const uint32_t more = 10, num = HLSNAP__OCI_MAX_EXTENTS + more;
    hlsnap__extent *e = (hlsnap__extent *)calloc(num, sizeof(*e));
    hlsnap__guest *g = guest_new();
    hlsnap_snapshot *s, *t;
    uint32_t i;
    for (i = 3; i < 8; i++) g->layout.regions[i].gva += i > 3 ? (uint64_t)num * 2 * P : 0; /* a larger heap */
    g->layout.regions[3].pages += num * 2;
    g->layout.pages += num * 2;
    for (i = 0; i < num; i++) e[i].page = 16 + i * 2, e[i].pages = 1, e[i].layer_page = i % 100;
    s = snapshot_over(g, layer_new(100, 5, 999), NULL, e, num);
    CHECK_EQ(save(dir, "x", s, NULL), 0);
    t = load(dir, "x");
    if (t) {
        check_same(s, t);
        CHECK_EQ(t->num_extents, HLSNAP__OCI_MAX_EXTENTS);
        CHECK_EQ(t->layers[0]->pages, num + more);
    }
    CHECK_EQ(sh("rm -r %s", dir), 0); /* 128 MiB */
    hlsnap_snapshot_release(t);
    hlsnap_snapshot_release(s);
    free(e);
}

/* More runs than a config may list, over a base: as many as need be are joined in the new layer, and the base stays. */
static void joined_over_a_base(void) {
    const char *dir = fresh();
    hlsnap_snapshot *s, *next, *t;
    const uint32_t num = HLSNAP__OCI_MAX_EXTENTS;
    hlsnap__extent *e = (hlsnap__extent *)calloc(num + 2, sizeof(*e));
    hlsnap__layer *layers[2], *base = layer_new(120, 5, 999);
    hlsnap__guest *g = guest_new();
    char d1[72], d2[72];
    uint32_t i;
    for (i = 3; i < 8; i++) g->layout.regions[i].gva += i > 3 ? (uint64_t)num * 4 * P : 0; /* a larger heap */
    g->layout.regions[3].pages += num * 4;
    g->layout.pages += num * 4;
    for (i = 0; i < num; i++) { /* three pages of four, one after the other three in the layer */
        e[i].page = 16 + i * 4;
        e[i].pages = 3;
        e[i].layer_page = i * 3 % 100;
    }
    s = snapshot_over(g, base, NULL, e, num);
    CHECK_EQ(save(dir, "x", s, NULL), 0);
    CHECK_EQ(layers_of(dir, "x"), 1);
    e[num + 1] = e[num - 1]; /* a page amid the last run but one: two runs more than may be */
    e[num] = e[num - 2];
    e[num].page += 2, e[num].pages = 1, e[num].layer_page += 2;
    e[num - 1] = e[num - 2];
    e[num - 1].page += 1, e[num - 1].pages = 1, e[num - 1].layer = 1, e[num - 1].layer_page = 0;
    e[num - 2].pages = 1;
    layers[0] = s->layers[0];
    layers[1] = layer_new(1, 77, 9);
    CHECK_EQ(hlsnap__snapshot_create(s->guest, 8, layers, 2, e, num + 2, &next, &err), 0);
    hlsnap__layer_release(layers[1]);
    CHECK_EQ(save(dir, "y", next, d1), 0);
    CHECK_EQ(layers_of(dir, "y"), 2);
    t = load(dir, "y");
    if (t) {
        check_same(next, t);
        CHECK_EQ(t->num_extents, num);
        CHECK_EQ(t->layers[t->num_layers - 1]->pages, 3); /* the page, and its two neighbours */
        CHECK_EQ(save(dir, "y", t, d2), 0);
        CHECK_STR(d1, d2);
    }
    hlsnap_snapshot_release(t);
    CHECK_EQ(save(dir, "y", next, d2), 0);
    CHECK_STR(d1, d2);
    for (i = 0; i < 3; i++) { /* that pages of the base's layer are in such blobs, too, does not hide the base */
        hlsnap_snapshot_release(next);
        layers[1] = layer_new(1, 78 + i, 9);
        CHECK_EQ(hlsnap__snapshot_create(s->guest, 9 + i, layers, 2, e, num + 2, &next, &err), 0);
        hlsnap__layer_release(layers[1]);
        CHECK_EQ(save(dir, "z", next, NULL), 0);
        CHECK_EQ(layers_of(dir, "z"), 2);
    }
    check_sound(dir);
    hlsnap_snapshot_release(next);
    hlsnap_snapshot_release(s);
    free(e);
}

static void written_whole_beyond_half(void) {
    const char *dir = fresh();
    hlsnap_snapshot *s = large(96, 1), *a = derive(s, 20, 50, 2), *b = derive(s, 20, 51, 3); /* 100 pages below them */
    CHECK_EQ(save(dir, "s", s, NULL), 0);
    CHECK_EQ(save(dir, "a", a, NULL), 0);
    CHECK_EQ(layers_of(dir, "a"), 2);
    CHECK_EQ(save(dir, "b", b, NULL), 0);
    CHECK_EQ(layers_of(dir, "b"), 1);
    check_sound(dir);
    hlsnap_snapshot_release(a);
    hlsnap_snapshot_release(b);
    hlsnap_snapshot_release(s);
}

static void zero_pages_are_no_layer(void) { /* a delta of nothing but zeros takes pages away and adds none */
    static const uint8_t zeros[4096];
    const char *dir = fresh();
    hlsnap_snapshot *s = large(200, 1), *z, *t;
    hlsnap__layer *layers[2];
    hlsnap__extent e[3] = {{0, 4, 0, 0}, {16, 1, 1, 0}, {17, 199, 0, 5}};
    int fd = hlsnap__memfd(&err);
    CHECK_EQ(save(dir, "s", s, NULL), 0);
    CHECK_EQ(pwrite(fd, zeros, 4096, 0), 4096);
    CHECK_EQ(hlsnap__memfd_seal(fd, &err), 0);
    layers[0] = s->layers[0];
    layers[1] = hlsnap__layer_create(fd, true, 1, &err);
    CHECK_EQ(hlsnap__snapshot_create(s->guest, 9, layers, 2, e, 3, &z, &err), 0);
    hlsnap__layer_release(layers[1]);
    CHECK_EQ(save(dir, "z", z, NULL), 0);
    CHECK_EQ(layers_of(dir, "z"), 1);
    CHECK_EQ(num_blobs(dir), 6); /* memory and chunk list are the same ones */
    t = load(dir, "z");
    if (t) check_same(z, t);
    check_sound(dir);
    hlsnap_snapshot_release(t);
    hlsnap_snapshot_release(z);
    hlsnap_snapshot_release(s);
}

static void another_layout_gets_all(void) {
    const char *a = fresh(), *b = fresh();
    hlsnap_snapshot *s = large(200, 1), *next = derive(s, 30, 5, 2), *t;
    CHECK_EQ(save(a, "v1", s, NULL), 0);
    CHECK_EQ(save(b, "v2", next, NULL), 0); /* a's blobs are not in b */
    CHECK_EQ(layers_of(b, "v2"), 1);
    CHECK_EQ(save(a, "v2", next, NULL), 0); /* and a is not forgotten over b */
    CHECK_EQ(layers_of(a, "v2"), 2);
    t = load(b, "v2");
    if (t) check_same(next, t);
    check_sound(a);
    check_sound(b);
    hlsnap_snapshot_release(t);
    hlsnap_snapshot_release(next);
    hlsnap_snapshot_release(s);
}

/* A blob that is damaged, missing, cut or exchanged is not shared, and what it held is written again. */
static void unsound_base_is_not_shared(void) {
    static const char *const harm[] = {"printf x | dd of=%s bs=1 seek=70000 conv=notrunc status=none", "rm %s",
                                       "truncate -s -4096 %s", "ln -sf /dev/zero %s", "rm %s; mkdir %s"};
    size_t i;
    for (i = 0; i < HLSNAP_COUNT(harm); i++) {
        const char *dir = fresh();
        hlsnap_snapshot *s = large(200, 1), *base, *next, *t;
        char path[120], command[400];
        CHECK_EQ(save(dir, "v1", s, NULL), 0);
        base = load(dir, "v1");
        next = derive(base, 30, 5, 2);
        path_of(dir, base, 0, path, sizeof(path));
        snprintf(command, sizeof(command), harm[i], path, path);
        CHECK_EQ(system(command), 0);
        CHECK_EQ(save(dir, "v2", next, NULL), 0);
        t = load(dir, "v2");
        if (t) check_same(next, t);
        CHECK_EQ(t ? t->num_layers : 0, 1);
        hlsnap_snapshot_release(t);
        CHECK(hlsnap_oci_fsck(dir, false, &err) != HLSNAP_OK);
        if (i < 4) { /* saving it again mends it; a directory is not ours to remove */
            CHECK_EQ(save(dir, "v1", s, NULL), 0);
            check_sound(dir);
        }
        hlsnap_snapshot_release(next);
        hlsnap_snapshot_release(base);
        hlsnap_snapshot_release(s);
    }
}

/* A guest that writes elsewhere what it had written before: the new layer would be a blob that is in the manifest already. */
static void same_pages_elsewhere(void) {
    const char *dir = fresh();
    hlsnap_snapshot *s = large(200, 1), *v2, *v3, *t;
    CHECK_EQ(save(dir, "v1", s, NULL), 0);
    v2 = derive(s, 30, 3, 77);
    CHECK_EQ(save(dir, "v2", v2, NULL), 0);
    CHECK_EQ(layers_of(dir, "v2"), 2);
    v3 = derive(v2, 60, 3, 77);
    CHECK_EQ(save(dir, "v3", v3, NULL), 0);
    t = load(dir, "v3");
    if (t) check_same(v3, t);
    CHECK_EQ(t ? t->num_layers : 0, 1);
    check_sound(dir);
    hlsnap_snapshot_release(t);
    hlsnap_snapshot_release(v3);
    hlsnap_snapshot_release(v2);
    hlsnap_snapshot_release(s);
}

/* As derive, at a random place, with pages of which there are only three different ones. */
static hlsnap_snapshot *derive_of_few(hlsnap_snapshot *s, uint64_t *seed) {
    const uint32_t num = 1 + (uint32_t)(lcg(seed) % 4), first = 16 + (uint32_t)(lcg(seed) % 60);
    hlsnap_snapshot *out = derive(s, first, num, 1);
    const int fd = hlsnap__memfd(NULL);
    hlsnap__layer *layer;
    uint8_t page[P];
    uint32_t i;
    for (i = 0; i < num; i++) {
        memset(page, (int)(lcg(seed) % 3), sizeof(page));
        CHECK_EQ(pwrite(fd, page, P, (off_t)(i * P)), (ssize_t)P);
    }
    hlsnap__memfd_seal(fd, NULL);
    layer = hlsnap__layer_create(fd, true, num, NULL);
    hlsnap__layer_release(out->layers[out->num_layers - 1]);
    out->layers[out->num_layers - 1] = layer;
    return out;
}

/* Layers that are equal, in part or all, and saved to two layouts in turn: what was saved loads, and is the same. */
static void few_different_pages(void) {
    const uint64_t rounds = is_quick() ? 10 : 60;
    uint64_t round, seed;
    uint32_t shared = 0;
    for (round = 0; round < rounds; round++) {
        const char *dirs[2];
        hlsnap_snapshot *s, *t;
        int k;
        seed = round * 77 + 1;
        dirs[0] = fresh(), dirs[1] = fresh();
        s = large(20 + (uint32_t)(lcg(&seed) % 150), 5 + round);
        for (k = 0; k < 12; k++) {
            const char *dir = dirs[lcg(&seed) % 3 == 0];
            bool ok;
            if (lcg(&seed) % 4) {
                t = derive_of_few(s, &seed);
                hlsnap_snapshot_release(s);
                s = t;
            }
            ok = CHECK_EQ(save(dir, "v", s, NULL), 0);
            t = ok ? load(dir, "v") : NULL;
            if (!t) {
                printf("# round %d, save %d\n", (int)round, k);
                break;
            }
            check_same(s, t);
            shared += t->num_layers > 1;
            if (lcg(&seed) % 3 == 0) {
                hlsnap_snapshot_release(s);
                s = t;
            } else
                hlsnap_snapshot_release(t);
        }
        check_sound(dirs[0]);
        hlsnap_snapshot_release(s);
    }
    CHECK(shared > rounds); /* most did share something */
}

/* A hostile layout names a layer's file by the digest of what its author foretold that a later save will write. Loading looks at
   chunk lists only; a save must not take the one for the other. */
static void foretold_digest(void) {
    const char *other = fresh(), *hostile = fresh(), *dir = fresh();
    hlsnap_snapshot *base = large(40, 1), *v2 = derive(base, 30, 10, 3), *later = derive(v2, 30, 10, 4), *s, *s1, *t;
    char d2[72], mine[72], foretold[72], script[200];
    CHECK_EQ(save(hostile, "base", base, NULL), 0);
    CHECK_EQ(save(hostile, "v2", v2, d2), 0);
    CHECK_EQ(save(other, "x", later, NULL), 0); /* what will be written: all of it, as it is more than half the base */
    memory_of(later, 0, foretold);
    memory_of(v2, 1, mine);
    CHECK_EQ(sh("mv %s/blobs/sha256/%s %s/blobs/sha256/%s", hostile, mine + 7, hostile, foretold + 7), 0);
    snprintf(script, sizeof(script), "s|%s|%s|", mine, foretold);
    edit_manifest(hostile, d2, script);
    s = load(hostile, "v2");
    if (!s) return;
    s1 = derive(s, 30, 10, 4);
    CHECK_EQ(save(dir, "s1", s1, NULL), 0);
    CHECK_EQ(save(dir, "s", s, NULL), 0);
    t = load(dir, "s");
    if (t) check_same(s, t);
    check_sound(dir);
    hlsnap_snapshot_release(t);
    hlsnap_snapshot_release(s1);
    hlsnap_snapshot_release(s);
    hlsnap_snapshot_release(later);
    hlsnap_snapshot_release(v2);
    hlsnap_snapshot_release(base);
}

static char awaited[80];               /* the file at whose first reading it happens */
static hlsnap_snapshot *meanwhile[2];
static void *save_meanwhile(void *unused) {
    hlsnap_error e;
    (void)unused;
    CHECK_EQ(hlsnap_oci_save(fresh(), "a", meanwhile[0], NULL, NULL, &e), HLSNAP_OK);
    CHECK_EQ(hlsnap_oci_save(fresh(), "b", meanwhile[1], NULL, NULL, &e), HLSNAP_OK);
    return NULL;
}
static void when_awaited(int fd) {
    pthread_t t;
    if (!is_file(fd, awaited)) return;
    at_read = NULL;
    CHECK_EQ(pthread_create(&t, NULL, save_meanwhile, NULL), 0);
    CHECK_EQ(pthread_join(t, NULL), 0);
}

/* While a save hashes a base that turns out to be damaged, other threads save what has the same layer, elsewhere. */
static void others_save_meanwhile(void) {
    const char *dir = fresh(), *once = fresh();
    hlsnap_snapshot *s = large(200, 1), *next = derive(s, 40, 5, 7), *t;
    char path[120];
    CHECK_EQ(save(dir, "v1", s, NULL), 0);
    path_of(dir, s, 0, path, sizeof(path));
    CHECK_EQ(save(once, "v", next, NULL), 0);
    meanwhile[0] = derive(s, 50, 5, 8);
    meanwhile[1] = derive(s, 60, 5, 9);
    CHECK_EQ(sh("printf x | dd of=%s bs=1 seek=70000 conv=notrunc status=none", path), 0);
    snprintf(awaited, sizeof(awaited), "%s", strrchr(path, '/') + 1);
    at_read = when_awaited;
    CHECK_EQ(save(dir, "v2", s, NULL), 0);
    CHECK(at_read == NULL);
    t = load(dir, "v2");
    if (t) check_same(s, t);
    check_sound(dir);
    hlsnap_snapshot_release(t);
    hlsnap_snapshot_release(meanwhile[0]);
    hlsnap_snapshot_release(meanwhile[1]);
    hlsnap_snapshot_release(next);
    hlsnap_snapshot_release(s);
}

static char victim[120];
static bool remove_victim(uint64_t done, uint64_t total, void *user) {
    (void)done, (void)total, (void)user;
    unlink(victim);
    return true;
}

/* A tool that knows no lock removes the base when the save has looked at it already. */
static void base_removed_during_the_save(void) {
    const char *dir = fresh();
    hlsnap_snapshot *s = large(200, 1), *base, *next, *t;
    hlsnap_oci_desc desc = HLSNAP_ZERO;
    CHECK_EQ(save(dir, "v1", s, NULL), 0);
    base = load(dir, "v1");
    next = derive(base, 30, 5, 2);
    path_of(dir, base, 0, victim, sizeof(victim));
    desc.progress = remove_victim;
    CHECK_EQ(hlsnap_oci_save(dir, "v2", next, &desc, NULL, &err), HLSNAP_OK);
    t = load(dir, "v2");
    if (t) check_same(next, t);
    CHECK_EQ(layers_of(dir, "v2"), 1);
    hlsnap_snapshot_release(t);
    hlsnap_snapshot_release(next);
    hlsnap_snapshot_release(base);
    hlsnap_snapshot_release(s);
}

/* A base that was loaded without verification may be anything: what is saved is what memory holds. */
static void unverified_base_is_not_shared(void) {
    const char *dir = fresh();
    hlsnap_snapshot *s = large(200, 1), *base = NULL, *next, *t;
    hlsnap_oci_desc desc = HLSNAP_ZERO;
    CHECK_EQ(save(dir, "v1", s, NULL), 0);
    desc.disable_verify = true;
    CHECK_EQ(hlsnap_oci_load(dir, "v1", &desc, &base, NULL, &err), HLSNAP_OK);
    next = derive(base, 30, 5, 2);
    CHECK_EQ(save(dir, "v2", next, NULL), 0);
    CHECK_EQ(layers_of(dir, "v2"), 1);
    t = load(dir, "v2");
    if (t) check_same(next, t);
    hlsnap_snapshot_release(t);
    hlsnap_snapshot_release(next);
    hlsnap_snapshot_release(base);
    hlsnap_snapshot_release(s);
}

/* ---- guards and verification ---- */

static hlsnap_oci_desc desc_of(hlsnap_oci_guard guard, uint32_t threads, bool later) {
    hlsnap_oci_desc d = HLSNAP_ZERO;
    d.guard = guard;
    d.threads = threads;
    d.verify_later = later;
    return d;
}

/* A layer of seven batches of which every seventh page is shown. */
static hlsnap_snapshot *scattered(uint64_t seed) {
    hlsnap__extent e[256];
    uint32_t i;
    for (i = 0; i < 255; i++) {
        e[i + 1].page = 16 + i;
        e[i + 1].pages = 1;
        e[i + 1].layer = 0;
        e[i + 1].layer_page = 4 + i * 7;
    }
    e[0].page = e[0].layer = e[0].layer_page = 0;
    e[0].pages = 4;
    return snapshot_over(guest_new(), layer_new(1792, seed, 1792), NULL, e, 256);
}

/* The layer's blob as it is, which a save would pack. */
static void save_unpacked(const char *dir, const char *tag, hlsnap_snapshot *s, char path[120]) {
    hlsnap__place *place;
    hlsnap__sha256 sha;
    uint8_t sum[32], *sums = (uint8_t *)malloc(112 * 32);
    char text[2][72];
    const uint8_t *map = s->layers[0]->map;
    const size_t n = (size_t)s->layers[0]->pages * P;
    FILE *f;
    int i;
    hlsnap_snapshot *o = large(1, 99);
    CHECK_EQ(save(dir, "other", o, NULL), 0); /* a layout to put it into */
    hlsnap__sha256_init(&sha, hlsnap__sha256_portable);
    hlsnap__sha256_update(&sha, map, n);
    hlsnap__sha256_final(&sha, sum);
    hlsnap__sha256_text(sum, text[0]);
    hlsnap__sha256_chunks(hlsnap__sha256_pick(0), map, n, 65536, sums);
    hlsnap__sha256_of(hlsnap__sha256_portable, sums, n / 65536 * 32, sum);
    hlsnap__sha256_text(sum, text[1]);
    for (i = 0; i < 2; i++) {
        snprintf(path, 120, "%s/blobs/sha256/%s", dir, text[!i] + 7);
        f = fopen(path, "w");
        CHECK_EQ(fwrite(i ? map : sums, 1, i ? n : n / 65536 * 32, f), i ? n : n / 65536 * 32);
        fclose(f);
    }
    place = hlsnap__oci_place_new(text[0], text[1], s->layers[0]->pages, 1);
    place->num = 1;
    place->runs[0].pages = (uint32_t)s->layers[0]->pages;
    hlsnap__layer_place_set(s->layers[0], place);
    CHECK_EQ(save(dir, tag, s, NULL), 0);
    free(sums);
    hlsnap_snapshot_release(o);
}

static void flip(const char *path, off_t at) {
    const int fd = open(path, O_RDWR);
    char c;
    CHECK(pread(fd, &c, 1, at) == 1);
    c = (char)(c ^ 0x10);
    CHECK(pwrite(fd, &c, 1, at) == 1);
    close(fd);
}

typedef struct steps { uint64_t last, total; uint32_t calls, stop; bool backwards; } steps;
static bool step(uint64_t done, uint64_t total, void *user) {
    steps *p = (steps *)user;
    p->backwards = p->backwards || done < p->last || done > total || total < p->total;
    p->last = done;
    p->total = total;
    return ++p->calls != p->stop;
}

static void derives_the_same(const char *plain, const char *digest) { /* in a layout that has nothing of it */
    hlsnap_snapshot *s = load(plain, "v2"), *next;
    char now[72];
    if (!s) return;
    next = derive(s, 60, 3, 9);
    CHECK_EQ(save(plain, "v3", next, now), 0);
    CHECK_STR(digest, now);
    hlsnap_snapshot_release(next);
    hlsnap_snapshot_release(s);
}

static void finds_a_byte_that_no_page_shows(const char *plain) { /* only the whole says so */
    hlsnap_oci_desc desc = HLSNAP_ZERO;
    hlsnap_snapshot *s, *next, *t = NULL;
    char other[120];
    uint32_t i;
    steps p;
    desc.user = &p;
    for (i = 0; i < 6; i++) {
        s = load(plain, "v2");
        if (!s) return;
        path_of(plain, s, 0, other, sizeof(other));
        next = derive(s, 60, 3, 20 + i);
        flip(other, 1000 * 4096 + 5);
        desc.threads = i % 3 + 1;
        desc.progress = i < 3 ? step : NULL;
        memset(&p, 0, sizeof(p));
        CHECK_EQ(hlsnap_oci_save(plain, "v4", next, &desc, NULL, &err), HLSNAP_OK);
        CHECK(!p.backwards && p.last == p.total);
        CHECK_EQ(hlsnap_oci_load(plain, "v4", NULL, &t, NULL, &err), HLSNAP_OK);
        if (t) check_same(next, t);
        CHECK(t && t->layers[0]->pages != 1792);
        hlsnap_snapshot_release(t);
        hlsnap_snapshot_release(next);
        hlsnap_snapshot_release(s);
        flip(other, 1000 * 4096 + 5);
    }
}

/* The first save over blobs that were loaded hashes them: with progress, which cancels it, on as many threads as are asked for,
   and with the same result. */
static void hashes_what_was_loaded(void) {
    hlsnap_snapshot *a = scattered(3), *b, *s, *next;
    const char *dir = fresh(), *plain = fresh();
    char path[120], before[72], digest[72] = "";
    hlsnap_oci_digest d;
    hlsnap_oci_desc desc = HLSNAP_ZERO;
    steps p;
    uint32_t i;
    int64_t bytes;
    save_unpacked(dir, "v1", a, path);
    b = derive(a, 40, 200, 8); /* a second blob */
    CHECK_EQ(save(dir, "v2", b, before), 0);
    CHECK_EQ(sh("cp -r %s %s", dir, plain), 0);
    bytes = bytes_of(dir);
    desc.progress = step;
    desc.user = &p;
    for (i = 0; i < 7; i++) {
        const bool cancels = i < 4;
        const uint32_t stop = i < 3 ? 1 + i : 1; /* of several threads the others may have done all the rest at the next one */
        s = load(dir, "v2");
        if (!s) return;
        CHECK_EQ(s->num_layers, 2);
        next = derive(s, 60, 3, 9);
        memset(&p, 0, sizeof(p));
        p.stop = cancels ? stop : 0;
        desc.threads = i < 3 ? 1 : i % 3 + 1 + (i == 3);
        CHECK_EQ(hlsnap_oci_save(dir, "v3", next, &desc, &d, &err), cancels ? HLSNAP_ERR_CANCELLED : HLSNAP_OK);
        CHECK(!p.backwards);
        CHECK_EQ(p.total, (1792 + 200 + 3 + (i > 4 ? 3u : 0u)) * P); /* what was written is there already, it is found then */
        if (cancels) {
            CHECK_EQ(p.calls, stop);
            CHECK(p.last < p.total || desc.threads > 1); /* the others may have done all the rest meanwhile */
            CHECK_EQ(bytes_of(dir), bytes);
        } else {
            CHECK_EQ(p.last, p.total);
            CHECK(p.calls >= (desc.threads > 1 ? 1u : 3u));
            if (digest[0]) CHECK_STR(d.text, digest);
            memcpy(digest, d.text, sizeof(digest));
        }
        hlsnap_snapshot_release(next);
        hlsnap_snapshot_release(s);
    }
    CHECK_EQ(layers_of(dir, "v3"), 3);
    derives_the_same(plain, digest);
    finds_a_byte_that_no_page_shows(plain);
    hlsnap_snapshot_release(a);
    hlsnap_snapshot_release(b);
}

/* max_bytes bounds what a save reads again of blobs that were loaded, all of them together, before it is read; not what it writes,
   nor what this process saved itself. */
static void hashes_no_more_than_max_bytes(void) {
    hlsnap_snapshot *a = scattered(3), *b, *s, *next;
    const char *dir = fresh();
    char path[120], want[120];
    hlsnap_oci_desc desc = HLSNAP_ZERO;
    steps p;
    uint32_t threads;
    int64_t bytes;
    save_unpacked(dir, "v1", a, path);
    usleep(40000);             /* what is hashed while its file is young is not remembered */
    b = derive(a, 40, 200, 8); /* a second blob */
    CHECK_EQ(save(dir, "v2", b, NULL), 0);
    desc.max_bytes = 1;
    next = derive(b, 60, 3, 9); /* over what was saved here: nothing is hashed again */
    CHECK_EQ(hlsnap_oci_save(dir, "v3", next, &desc, NULL, &err), HLSNAP_OK);
    hlsnap_snapshot_release(next);
    bytes = bytes_of(dir);
    snprintf(want, sizeof(want), "%llu bytes of memory layers that were loaded are to be hashed again, desc.max_bytes is %llu", 1992ull * P, 1992ull * P - 1);
    desc.progress = step;
    desc.user = &p;
    for (threads = 0; threads < 4; threads++) {
        s = load(dir, "v2");
        if (!s) return;
        next = derive(s, 60, 4, 30 + threads);
        desc.threads = threads;
        desc.max_bytes = 1992ull * P - 1;
        memset(&p, 0, sizeof(p));
        CHECK_EQ(hlsnap_oci_save(dir, "v4", next, &desc, NULL, &err), HLSNAP_ERR_LIMIT);
        if (!CHECK(strstr(err.msg, want) != NULL)) printf("# %s\n", err.msg);
        CHECK(p.calls == 0 && bytes_of(dir) == bytes); /* not a byte was read, and nothing is left */
        CHECK_EQ(hlsnap_oci_load(dir, "v4", NULL, &(hlsnap_snapshot *){NULL}, NULL, &err), HLSNAP_ERR_NOT_FOUND);
        desc.max_bytes++;
        CHECK_EQ(hlsnap_oci_save(dir, "v4", next, &desc, NULL, &err), HLSNAP_OK);
        CHECK(p.calls > 0 && p.last == p.total);
        CHECK_EQ(hlsnap_oci_untag(dir, "v4", &err), HLSNAP_OK);
        CHECK_EQ(hlsnap_oci_gc(dir, 0, NULL, &err), HLSNAP_OK);
        CHECK_EQ(bytes_of(dir), bytes);
        hlsnap_snapshot_release(next);
        hlsnap_snapshot_release(s);
    }
    desc.max_bytes = 1; /* into another layout, and flat, nothing is hashed again */
    CHECK_EQ(hlsnap_oci_save(fresh(), "v1", b, &desc, NULL, &err), HLSNAP_OK);
    hlsnap_snapshot_release(a);
    hlsnap_snapshot_release(b);
}

static uint64_t listed_of(const hlsnap_snapshot *s, uint32_t layer) {
    hlsnap__place *place = hlsnap__layer_place_get(s->layers[layer], 0);
    const uint64_t ino = place ? place->list_ino : 0;
    CHECK(!place || !place->ino);
    hlsnap__place_release(place);
    return ino;
}

static void touch_it(int fd) { /* while it is read */
    if (is_file(fd, awaited)) CHECK_EQ(fchmod(fd, 0640) == 0 && fchmod(fd, 0600) == 0, true);
}

static bool young_is_not_remembered(const char *dir, const char *path) { /* if it is loaded quickly */
    uint64_t listed = 1;
    int i;
    for (i = 0; i < 100 && listed; i++) {
        hlsnap_snapshot *s;
        CHECK_EQ(chmod(path, i % 2 ? 0600 : 0640), 0);
        s = load(dir, "v1");
        listed = s ? listed_of(s, 0) : 1;
        hlsnap_snapshot_release(s);
    }
    return !listed;
}

/* The same of what a save hashed: a change in the same tick of the clock would not show. */
static uint64_t seen_by_save(const char *dir, const char *touched) {
    hlsnap_snapshot *t = load(dir, "v1"), *next;
    hlsnap__place *place;
    uint64_t ino;
    if (!t) return 0;
    next = derive(t, 30, 5, 2);
    if (touched) CHECK_EQ(chmod(touched, 0640) == 0 && chmod(touched, 0600) == 0, true);
    CHECK_EQ(save(dir, "v2", next, NULL), 0);
    place = hlsnap__layer_place_get(t->layers[0], 0);
    ino = place ? place->ino : 0;
    hlsnap__place_release(place);
    hlsnap_snapshot_release(next);
    hlsnap_snapshot_release(t);
    return ino;
}
static void young_is_hashed_again(void) {
    const char *dir = fresh();
    hlsnap_snapshot *s = large(200, 1);
    char path[120];
    struct stat st;
    uint64_t seen = 1;
    int i;
    CHECK_EQ(save(dir, "v1", s, NULL), 0);
    path_of(dir, s, 0, path, sizeof(path));
    for (i = 0; i < 100 && seen; i++) seen = seen_by_save(dir, path); /* if it is quick */
    CHECK_EQ(seen, 0);
    usleep(40000);
    CHECK_EQ(stat(path, &st), 0);
    CHECK_EQ(seen_by_save(dir, NULL), (uint64_t)st.st_ino);
    hlsnap_snapshot_release(s);
}

/* Chunks that a load verified, all of them, of a file that did not change, are not hashed again by a save; but never is a blob
   named by a digest that this process has not seen to be its own. */
static void verified_chunks_are_remembered(void) {
    const hlsnap_oci_desc none = desc_of(HLSNAP_OCI_GUARD_NONE, 0, false), later = desc_of(HLSNAP_OCI_GUARD_NONE, 0, true);
    const char *dir = fresh(), *hostile = fresh();
    hlsnap_snapshot *s = large(200, 1), *t, *next;
    char path[120], d1[72], mine[72], script[200];
    struct stat st;
    CHECK_EQ(save(dir, "v1", s, d1), 0);
    path_of(dir, s, 0, path, sizeof(path));
    CHECK(young_is_not_remembered(dir, path));
    usleep(40000);
    CHECK_EQ(stat(path, &st), 0);
    t = load(dir, "v1");
    CHECK_EQ(t ? listed_of(t, 0) : 0, (uint64_t)st.st_ino);
    hlsnap_snapshot_release(t);
    CHECK_EQ(hlsnap_oci_load(dir, "v1", &none, &t, NULL, &err), HLSNAP_OK);
    CHECK_EQ(listed_of(t, 0), (uint64_t)st.st_ino);
    next = derive(t, 30, 5, 2);
    CHECK_EQ(save(dir, "v2", next, NULL), 0);
    CHECK_EQ(layers_of(dir, "v2"), 2);
    hlsnap_snapshot_release(next);
    hlsnap_snapshot_release(t);
    CHECK_EQ(hlsnap_oci_load(dir, "v1", &later, &t, NULL, &err), HLSNAP_OK);
    CHECK_EQ(listed_of(t, 0), 0);
    hlsnap_snapshot_release(t);
    snprintf(awaited, sizeof(awaited), "%s", strrchr(path, '/') + 1);
    at_read = touch_it;
    CHECK_EQ(hlsnap_oci_load(dir, "v1", &none, &t, NULL, &err), HLSNAP_OK);
    at_read = NULL;
    CHECK_EQ(listed_of(t, 0), 0);
    hlsnap_snapshot_release(t);
    next = derive(s, 30, 60, 5); /* hides chunks of the base, which nobody verifies then */
    CHECK_EQ(save(dir, "v3", next, NULL), 0);
    hlsnap_snapshot_release(next);
    usleep(40000);
    t = load(dir, "v3");
    CHECK(t && t->num_layers == 2 && listed_of(t, 0) == 0 && listed_of(t, 1) != 0);
    hlsnap_snapshot_release(t);
    /* a manifest that names the file by another digest, with the right chunks */
    CHECK_EQ(save(hostile, "v1", s, d1), 0);
    memory_of(s, 0, mine);
    CHECK_EQ(sh("mv %s/blobs/sha256/%s %s/blobs/sha256/%064d", hostile, mine + 7, hostile, 7), 0);
    snprintf(script, sizeof(script), "s|%s|%064d|", mine + 7, 7);
    edit_manifest(hostile, d1, script);
    usleep(40000);
    t = load(hostile, "v1");
    if (t) {
        CHECK(listed_of(t, 0) != 0);
        next = derive(t, 30, 5, 2);
        CHECK_EQ(save(hostile, "v2", next, NULL), 0);
        CHECK_EQ(layers_of(hostile, "v2"), 1); /* written anew, under its own name */
        hlsnap_snapshot_release(next);
    }
    hlsnap_snapshot_release(t);
    hlsnap_snapshot_release(s);
}

/* One byte, anywhere in a chunk that is used: found with its layer and chunk, however it is loaded. */
static void one_byte_is_found(void) {
    static const hlsnap_oci_guard guards[] = {HLSNAP_OCI_GUARD_NONE, HLSNAP_OCI_GUARD_DETECT, HLSNAP_OCI_GUARD_LEASE, HLSNAP_OCI_GUARD_PRIVATE};
    static const uint32_t at[] = {0, 65535, 65536, 1048575, 1048576, 3000000, 5000000, 1782 * 4096 + 77};
    const size_t step = getenv("QUICK") ? HLSNAP_COUNT(at) - 1 : 1;
    const char *dir = fresh();
    hlsnap_snapshot *s = scattered(3), *t;
    char path[120], want[40];
    size_t i, g, k;
    save_unpacked(dir, "v1", s, path);
    CHECK_EQ(layers_of(dir, "v1"), 1);
    for (i = 0; i < HLSNAP_COUNT(at); i += step) {
        flip(path, at[i]);
        snprintf(want, sizeof(want), "layer 0, chunk %u ", at[i] / 65536);
        for (g = 0; g < HLSNAP_COUNT(guards); g++)
            for (k = 0; k < 4; k++) {
                const hlsnap_oci_desc d = desc_of(guards[g], k % 2 ? 3 : 0, k > 1);
                memset(&err, 0, sizeof(err));
                if (hlsnap_oci_load(dir, "v1", &d, &t, NULL, &err) == HLSNAP_OK) CHECK(k > 1); /* unless the thread was quicker */
                else CHECK_EQ(err.code, HLSNAP_ERR_DIGEST);
                if (t) {
                    CHECK_EQ(hlsnap__snapshot_check(t, true, &err), HLSNAP_ERR_DIGEST);
                    CHECK_EQ(hlsnap__snapshot_check(t, false, &err), HLSNAP_ERR_DIGEST);
                    CHECK_EQ(hlsnap_oci_save(dir, "no", t, NULL, NULL, &err), HLSNAP_ERR_DIGEST);
                }
                if (!CHECK(strstr(err.msg, want) != NULL)) printf("# %s\n", err.msg);
                hlsnap_snapshot_release(t);
            }
        flip(path, at[i]);
    }
    flip(path, 70000); /* two: the first is told, by whatever thread */
    flip(path, 6000000);
    for (k = 0; k < 20; k += step) {
        const hlsnap_oci_desc d = desc_of(HLSNAP_OCI_GUARD_NONE, 4, false);
        CHECK_EQ(hlsnap_oci_load(dir, "v1", &d, &t, NULL, &err), HLSNAP_ERR_DIGEST);
        CHECK(strstr(err.msg, "chunk 1 ") != NULL);
    }
    flip(path, 70000);
    flip(path, 6000000);
    for (g = 0; g < HLSNAP_COUNT(guards); g++)
        for (k = 0; k < 4; k++) {
            const hlsnap_oci_desc d = desc_of(guards[g], k % 2 ? 3 : 0, k > 1);
            hlsnap_snapshot_info info;
            if (!CHECK_EQ(hlsnap_oci_load(dir, "v1", &d, &t, NULL, &err), HLSNAP_OK)) continue;
            CHECK_EQ(hlsnap__snapshot_check(t, true, &err), HLSNAP_OK);
            hlsnap_snapshot_get_info(t, &info);
            CHECK_EQ(info.guard, guards[g]);
            check_same(s, t);
            hlsnap_snapshot_release(t);
        }
    hlsnap_snapshot_release(s);
}

/* With a guard that looks, a change is an error for ever; a name that comes or goes is none. */
static void changes_are_noticed(void) {
    static const char *const harm[] = {"printf x | dd of=%s bs=1 seek=70000 conv=notrunc status=none", "truncate -s -4096 %s",
                                       "truncate -s +4096 %s", "fallocate -p -o 65536 -l 4096 %s", ": > %s", "touch -m -d @5 %s"};
    const char *dir = fresh();
    hlsnap_oci_desc d = desc_of(HLSNAP_OCI_GUARD_DETECT, 0, false);
    char path[120];
    size_t i;
    for (i = 0; i < HLSNAP_COUNT(harm); i++) {
        hlsnap_snapshot *s = scattered(i + 10), *t = NULL;
        char command[300];
        save_unpacked(dir, "v1", s, path);
        CHECK_EQ(hlsnap_oci_load(dir, "v1", &d, &t, NULL, &err), HLSNAP_OK);
        CHECK_EQ(sh("ln %s l-link", path), 0);
        CHECK_EQ(hlsnap__snapshot_check(t, true, &err), HLSNAP_OK);
        snprintf(command, sizeof(command), harm[i], path);
        CHECK_EQ(system(command), 0);
        CHECK_EQ(hlsnap__snapshot_check(t, true, &err), HLSNAP_ERR_CHANGED);
        CHECK_EQ(hlsnap_oci_save(dir, "no", t, NULL, NULL, &err), HLSNAP_ERR_CHANGED);
        CHECK_EQ(sh("rm l-link"), 0);
        hlsnap_snapshot_release(t);
        hlsnap_snapshot_release(s);
    }
}

static void leases_hold_writers(void) {
    const char *dir = fresh();
    hlsnap_oci_desc d = desc_of(HLSNAP_OCI_GUARD_LEASE, 0, false);
    hlsnap_snapshot *s = scattered(3), *t = NULL;
    hlsnap_snapshot_info info;
    char path[120];
    int fd;
    save_unpacked(dir, "v1", s, path);
    fd = open(path, O_RDWR);
    CHECK_EQ(hlsnap_oci_load(dir, "v1", &d, &t, NULL, &err), HLSNAP_OK); /* somebody may write already: a copy */
    hlsnap_snapshot_get_info(t, &info);
    CHECK_EQ(info.guard, HLSNAP_OCI_GUARD_PRIVATE);
    close(fd);
    hlsnap_snapshot_release(t);
    CHECK_EQ(hlsnap_oci_load(dir, "v1", &d, &t, NULL, &err), HLSNAP_OK);
    hlsnap_snapshot_get_info(t, &info);
    CHECK_EQ(info.guard, HLSNAP_OCI_GUARD_LEASE);
    fd = open(path, O_RDONLY);
    CHECK(fd >= 0);
    close(fd);
    CHECK_EQ(hlsnap__snapshot_check(t, true, &err), HLSNAP_OK);
    CHECK(open(path, O_WRONLY | O_NONBLOCK) < 0 && errno == EWOULDBLOCK); /* and no signal came */
    CHECK_EQ(hlsnap__snapshot_check(t, true, &err), HLSNAP_ERR_CHANGED);
    fd = open(path, O_WRONLY | O_NONBLOCK); /* we know, so it may */
    CHECK(fd >= 0);
    close(fd);
    CHECK_EQ(hlsnap__snapshot_check(t, true, &err), HLSNAP_ERR_CHANGED);
    hlsnap_snapshot_release(t);
    CHECK_EQ(hlsnap_oci_load(dir, "v1", &d, &t, NULL, &err), HLSNAP_OK);
    fd = open(path, O_RDONLY | O_TRUNC); /* the hole in leases: it is seen by the size */
    close(fd);
    CHECK_EQ(hlsnap__snapshot_check(t, true, &err), HLSNAP_ERR_CHANGED);
    hlsnap_snapshot_release(t);
    hlsnap_snapshot_release(s);
}

static int count_fds(void) {
    glob_t g;
    int n = glob("/proc/self/fd/*", 0, NULL, &g) == 0 ? (int)g.gl_pathc : -1;
    globfree(&g);
    return n;
}

/* The last reference ends the threads; a child of a fork has none to end. */
static void released_while_verified(void) {
    static const hlsnap_oci_guard guards[] = {HLSNAP_OCI_GUARD_NONE, HLSNAP_OCI_GUARD_DETECT, HLSNAP_OCI_GUARD_LEASE, HLSNAP_OCI_GUARD_PRIVATE};
    const char *dir = fresh();
    hlsnap_snapshot *s = scattered(3), *t = NULL;
    const int fds = count_fds();
    char path[120];
    int i, status = -1;
    pid_t pid;
    save_unpacked(dir, "v1", s, path);
    for (i = 0; i < 80; i++) {
        const hlsnap_oci_desc d = desc_of(guards[i % 4], (uint32_t)i % 3, true);
        CHECK_EQ(hlsnap_oci_load(dir, "v1", &d, &t, NULL, &err), HLSNAP_OK);
        if (i == 7 || i == 60) {
            pid = fork();
            if (pid == 0) {
                hlsnap_snapshot_release(t);
                _exit(0);
            }
            CHECK_EQ(waitpid(pid, &status, 0), pid);
            CHECK_EQ(status, 0);
        }
        if (i % 5 == 0) CHECK_EQ(hlsnap__snapshot_check(t, true, &err), HLSNAP_OK);
        hlsnap_snapshot_release(t);
    }
    CHECK_EQ(count_fds(), fds);
    hlsnap_snapshot_release(s);
}

/* While it is held, the threads that verify read nothing. */
static int32_t verify_held, verify_waits;
static pthread_t first_one;
static void hold_verifiers(int fd) {
    bool counted = false;
    (void)fd;
    for (; __atomic_load_n(&verify_held, __ATOMIC_RELAXED) && !pthread_equal(pthread_self(), first_one); usleep(1000)) {
        if (!counted) __atomic_add_fetch(&verify_waits, 1, __ATOMIC_RELAXED);
        counted = true;
    }
}
static void await_verifiers(int num) { /* until all of them are amid it */
    while (__atomic_load_n(&verify_waits, __ATOMIC_RELAXED) < num) usleep(1000);
    verify_waits = 0;
}

static void *checks(void *arg) {
    hlsnap_error e = HLSNAP_ZERO;
    return hlsnap__snapshot_check((hlsnap_snapshot *)arg, true, &e) ? arg : NULL;
}

/* What the child of a fork does with a snapshot whose verification it does not inherit; `what` counts up. */
static int in_the_child(const char *dir, hlsnap_snapshot *t, int what, int num, hlsnap_result want) {
    const int fds = count_fds(), layers = (int)t->num_layers;
    pthread_t threads[3];
    hlsnap_oci_digest d;
    bool pending = false;
    void *bad;
    uint8_t byte;
    int i, files;
    for (i = files = 0; i < layers; i++) files += t->layers[i]->fd >= 0;
    alarm(30);
    verify_held = 0;
    if (what == 0) CHECK_EQ(hlsnap_snapshot_read(t, BASE, &byte, 1, &err), want);
    if (what == 1) CHECK_EQ(hlsnap_oci_save(dir, "v2", t, NULL, &d, &err), want);
    if (what == 2) CHECK_EQ(hlsnap__snapshot_await(t, 10000000000u, &pending, &err), want);
    for (i = 0; i < 3 && what == 3; i++) pthread_create(&threads[i], NULL, checks, t);
    for (i = 0; i < 3 && what == 3; i++) {
        pthread_join(threads[i], &bad);
        CHECK_EQ(bad != NULL, want != HLSNAP_OK);
    }
    if (what == 4) { /* no word by now, and not for as long as nothing is read */
        verify_held = 1;
        CHECK_EQ(hlsnap__snapshot_await(t, 1000000, &pending, &err), HLSNAP_OK);
        CHECK(pending);
        verify_held = 0;
        CHECK_EQ(hlsnap__snapshot_check(t, true, &err), want);
    }
    if (what == 5) { /* the child of a child, while ours verifies */
        int status = -1;
        pid_t pid;
        verify_held = 1;
        hlsnap__snapshot_check(t, false, &err);
        await_verifiers(num);
        pid = fork();
        if (pid == 0) {
            verify_held = 0;
            CHECK_EQ(hlsnap_snapshot_read(t, BASE, &byte, 1, &err), want);
            hlsnap_snapshot_release(t);
            _exit(test_bad != 0 || alloc_live != 0);
        }
        CHECK_EQ(waitpid(pid, &status, 0), pid);
        CHECK_EQ(status, 0);
        verify_held = 0;
    }
    if (want && what < 3) CHECK_EQ(err.code, want);
    hlsnap_snapshot_release(t); /* what == 6: at once */
    CHECK_EQ(alloc_live, 0);
    CHECK(count_fds() <= fds - files);
    return test_bad != 0;
}

/* A child has no thread that verifies: it verifies for itself what it uses, and lets go of everything. */
static void verified_in_a_child(void) {
    static const hlsnap_oci_guard guards[] = {HLSNAP_OCI_GUARD_NONE, HLSNAP_OCI_GUARD_DETECT, HLSNAP_OCI_GUARD_LEASE, HLSNAP_OCI_GUARD_PRIVATE};
    const char *dir = fresh();
    hlsnap_snapshot *s = scattered(3), *t = NULL;
    char path[120];
    int i, what, status;
    pid_t pid;
    save_unpacked(dir, "v1", s, path);
    hlsnap_snapshot_release(s);
    if (getenv("QEMU_USER")) SKIP("qemu-user ignores MADV_WIPEONFORK");
    first_one = pthread_self();
    at_read = hold_verifiers;
    for (i = 0; i < 16; i++) {
        const bool damaged = i >= 8;
        const hlsnap_oci_desc d = desc_of(guards[i % 4], i & 4 && i % 4 != 3 ? 3 : 1, true); /* a copy's helpers would be held, too */
        if (i == 8) CHECK_EQ(sh("printf '\\377' | dd of=%s bs=1 seek=5 conv=notrunc status=none", path), 0);
        for (what = 0; what < 7; what++) {
            verify_held = 1;
            CHECK_EQ(hlsnap_oci_load(dir, "v1", &d, &t, NULL, &err), HLSNAP_OK);
            await_verifiers((int)d.threads);
            fflush(stdout);
            pid = fork();
            if (pid == 0) {
                status = in_the_child(dir, t, what, (int)d.threads, damaged ? HLSNAP_ERR_DIGEST : HLSNAP_OK);
                fflush(stdout);
                _exit(status);
            }
            CHECK_EQ(waitpid(pid, &status, 0), pid);
            if (!CHECK_EQ(status, 0)) printf("# guard %d, %u threads, damaged %d, way %d\n", (int)d.guard, d.threads, damaged, what);
            verify_held = 0;
            CHECK_EQ(hlsnap__snapshot_check(t, true, &err), damaged ? HLSNAP_ERR_DIGEST : HLSNAP_OK); /* nothing of ours was touched */
            hlsnap_snapshot_release(t);
            if (test_bad) i = 16;
        }
    }
    at_read = NULL;
}

/* The lock of a layer's places, held by a thread that a fork left behind: the child saves and loads, and lets go. */
static void locked_in_a_child(void) {
    const char *dir = fresh();
    hlsnap_snapshot *s = scattered(5), *t;
    int status = -1;
    pid_t pid;
    CHECK_EQ(save(dir, "v1", s, NULL), HLSNAP_OK);
    hlsnap_snapshot_release(s);
    s = load(dir, "v1");
    s->layers[0]->places_lock = 1; /* as if another thread had it */
    fflush(stdout);
    pid = fork();
    if (pid == 0) {
        alarm(30);
        CHECK_EQ(save(dir, "v2", s, NULL), HLSNAP_OK);
        CHECK_EQ(save(dir, "v3", s, NULL), HLSNAP_OK);
        t = load(dir, "v3");
        check_same(s, t);
        hlsnap_snapshot_release(t);
        hlsnap_snapshot_release(s);
        _exit(test_bad != 0);
    }
    CHECK_EQ(waitpid(pid, &status, 0), pid);
    CHECK_EQ(status, 0);
    s->layers[0]->places_lock = 0;
    check_sound(dir);
    CHECK_EQ(save(dir, "v4", s, NULL), HLSNAP_OK);
    hlsnap_snapshot_release(s);
}

static void threads_are_bounded(void) {
    const char *dir = fresh();
    hlsnap_oci_desc d = desc_of(HLSNAP_OCI_GUARD_NONE, 65, false);
    hlsnap_snapshot *s = large(20, 1), *t = NULL;
    CHECK_EQ(save(dir, "v1", s, NULL), 0);
    CHECK_EQ(hlsnap_oci_load(dir, "v1", &d, &t, NULL, &err), HLSNAP_ERR_ARG);
    d.threads = 64;
    CHECK_EQ(hlsnap_oci_load(dir, "v1", &d, &t, NULL, &err), HLSNAP_OK);
    hlsnap_snapshot_release(t);
    hlsnap_snapshot_release(s);
}

/* ---- the store's functions ---- */

typedef struct seen { char text[2000]; } seen;

static bool note(const char *tag, const hlsnap_oci_digest *digest, uint64_t bytes, void *user) {
    seen *s = (seen *)user;
    snprintf(s->text + strlen(s->text), sizeof(s->text) - strlen(s->text), "%s %.15s %s;", tag, digest->text, bytes ? "+" : "0");
    return true;
}

static bool stop(const char *tag, const hlsnap_oci_digest *digest, uint64_t bytes, void *user) {
    (void)tag, (void)digest, (void)bytes;
    ++*(int *)user;
    return false;
}

static bool note_text(const char *key, const char *value, void *user) {
    seen *s = (seen *)user;
    snprintf(s->text + strlen(s->text), sizeof(s->text) - strlen(s->text), "%s=%s;", key, value);
    return true;
}

static void lists(void) {
    const char *dir = fresh();
    hlsnap_snapshot *s = large(200, 1), *o = large(20, 2);
    char d1[72], d2[72], want[200];
    seen got = {""};
    int calls = 0;
    CHECK_EQ(save(dir, "v1", s, d1), 0);
    CHECK_EQ(save(dir, "v2", s, NULL), 0);
    CHECK_EQ(save(dir, "v2", o, d2), 0);
    CHECK_EQ(save(dir, "v1", o, NULL), 0);
    CHECK_EQ(hlsnap_oci_list(dir, note, &got, &err), HLSNAP_OK);
    snprintf(want, sizeof(want), " %.15s +;v2 %.15s +;v1 %.15s +;", d1, d2, d2);
    CHECK_STR(got.text, want);
    CHECK_EQ(hlsnap_oci_list(dir, stop, &calls, &err), HLSNAP_OK);
    CHECK_EQ(calls, 1);
    /* a foreign entry is left out; a snapshot whose manifest is gone has no bytes */
    CHECK_EQ(sh("sed -i 's|\"manifests\":\\[|&{\"mediaType\":\"text/plain\",\"digest\":\"sha512:00\",\"size\":1},|' %s/index.json", dir), 0);
    CHECK_EQ(sh("rm %s/blobs/sha256/%s", dir, d1 + 7), 0);
    got.text[0] = 0;
    CHECK_EQ(hlsnap_oci_list(dir, note, &got, &err), HLSNAP_OK);
    snprintf(want, sizeof(want), " %.15s 0;v2 %.15s +;v1 %.15s +;", d1, d2, d2);
    CHECK_STR(got.text, want);
    CHECK_EQ(hlsnap_oci_list("nowhere", note, &got, &err), HLSNAP_ERR_NOT_FOUND);
    CHECK_EQ(hlsnap_oci_list(dir, NULL, NULL, &err), HLSNAP_ERR_ARG);
    CHECK_EQ(hlsnap_oci_list(NULL, note, NULL, &err), HLSNAP_ERR_ARG);
    hlsnap_snapshot_release(s);
    hlsnap_snapshot_release(o);
}

static void annotations(void) {
    const char *dir = fresh();
    hlsnap_snapshot *s = large(20, 1);
    seen got = {""};
    CHECK_EQ(save(dir, "v1", s, NULL), 0);
    CHECK_EQ(hlsnap_oci_annotations(dir, "v1", note_text, &got, &err), HLSNAP_OK);
    CHECK_STR(got.text, "org.opencontainers.image.ref.name=v1;dev.hlsnap.abi=2;dev.hlsnap.arch=" HLSNAP__OCI_ARCH ";"
                        "dev.hlsnap.build-id=0123456789abcdef0123456789abcdef01234567;dev.hlsnap.cpu.vendor=AMDisbetter!;"
                        "dev.hlsnap.hypervisor=some_vm-1.0+x;dev.hlsnap.library=" HLSNAP_VERSION_STRING
                        ";dev.hlsnap.version=3;");
    CHECK_EQ(hlsnap_oci_annotations(dir, "v2", note_text, &got, &err), HLSNAP_ERR_NOT_FOUND);
    CHECK_EQ(hlsnap_oci_annotations(dir, "a/b", note_text, &got, &err), HLSNAP_ERR_NOT_FOUND);
    CHECK_EQ(hlsnap_oci_annotations(dir, "v1", NULL, &got, &err), HLSNAP_ERR_ARG);
    hlsnap_snapshot_release(s);
}

static bool note_layer(const hlsnap_oci_layer *layer, void *user) {
    seen *s = (seen *)user;
    snprintf(s->text + strlen(s->text), sizeof(s->text) - strlen(s->text), "%.15s %.15s %llu;", layer->memory.text, layer->chunks.text,
             (unsigned long long)layer->pages);
    return true;
}
static bool stop_layer(const hlsnap_oci_layer *layer, void *user) { return ++*(int *)user == 0 && layer->pages; }

static void lists_layers(void) {
    const char *dir = fresh();
    hlsnap_snapshot *s = large(200, 1), *t, *u;
    seen got = {""};
    char want[2][200];
    int calls = 0;
    CHECK_EQ(save(dir, "v1", s, NULL), 0);
    t = load(dir, "v1");
    u = derive(t, 40, 1, 7);
    CHECK_EQ(save(dir, "v2", u, NULL), 0);
    CHECK_EQ(hlsnap_oci_layers(dir, "v1", note_layer, &got, &err), HLSNAP_OK);
    memcpy(want[0], got.text, sizeof(want[0]));
    CHECK(strstr(want[0], " 204;") != NULL); /* as the base has them, the delta does, and one more */
    got.text[0] = 0;
    CHECK_EQ(hlsnap_oci_layers(dir, "v2", note_layer, &got, &err), HLSNAP_OK);
    CHECK_EQ(strncmp(got.text, want[0], strlen(want[0])), 0);
    CHECK(strstr(got.text + strlen(want[0]), " 1;") != NULL);
    CHECK_EQ(hlsnap_oci_layers(dir, "v2", stop_layer, &calls, &err), HLSNAP_OK);
    CHECK_EQ(calls, 1);
    CHECK_EQ(hlsnap_oci_layers(dir, "v3", note_layer, &got, &err), HLSNAP_ERR_NOT_FOUND);
    CHECK_EQ(hlsnap_oci_layers(dir, "v2", NULL, &got, &err), HLSNAP_ERR_ARG);
    CHECK_EQ(hlsnap_oci_layers(NULL, "v2", note_layer, &got, &err), HLSNAP_ERR_ARG);
    hlsnap_snapshot_release(s);
    hlsnap_snapshot_release(t);
    hlsnap_snapshot_release(u);
}

/* What a snapshot shows of itself is what it is: of one in memory, and of one from files at each guard. */
static void check_inside(const hlsnap_snapshot *s) {
    static uint8_t all[300 * P], page[P];
    hlsnap_region region;
    hlsnap_extent extent;
    uint64_t i, k, stored = 0;
    for (i = 0; hlsnap_snapshot_region(s, i, &region); i++) {
        CHECK_STR(region.kind, hlsnap__kind_names[regions[i].kind]);
        CHECK(region.gva == regions[i].gva && region.pages == regions[i].pages);
        CHECK_EQ(region.executable, i == 0);
        CHECK(!region.executable || !region.writable);
        CHECK_EQ(region.stored, strcmp(region.kind, "mailbox") && strcmp(region.kind, "identity"));
        memset(all, 1, sizeof(all));
        if (!CHECK(region.pages <= 300)) continue;
        CHECK_EQ(hlsnap_snapshot_read(s, region.gva, all, region.pages * P, &err), HLSNAP_OK);
        for (k = 0; k < region.pages; k++) {
            page_of(s, (uint32_t)((region.gva - BASE) / P + k), page);
            CHECK_EQ(memcmp(all + k * P, page, P), 0);
        }
        if (region.pages == 256) { /* any bytes, across pages and extents */
            CHECK_EQ(hlsnap_snapshot_read(s, region.gva + 3 * P + 5, page, P, &err), HLSNAP_OK);
            CHECK_EQ(memcmp(all + 3 * P + 5, page, P), 0);
            CHECK_EQ(hlsnap_snapshot_read(s, region.gva + 34 * P - 1, page, 2, &err), HLSNAP_OK);
            CHECK_EQ(memcmp(all + 34 * P - 1, page, 2), 0);
            CHECK_EQ(hlsnap_snapshot_read(s, region.gva - 1, page, 2, &err), HLSNAP_ERR_ARG); /* no region below */
            CHECK_EQ(hlsnap_snapshot_read(s, region.gva + 255 * P, all, 2 * P, &err), HLSNAP_ERR_ARG); /* the stack's guard */
            CHECK_EQ(hlsnap_snapshot_read(s, region.gva + 256 * P, page, 1, &err), HLSNAP_ERR_ARG);
        }
    }
    CHECK_EQ(i, s->guest->layout.num_regions);
    CHECK_EQ(hlsnap_snapshot_read(s, UINT64_MAX, page, 2, &err), HLSNAP_ERR_ARG);
    CHECK_EQ(hlsnap_snapshot_read(s, BASE - 1, page, 1, &err), HLSNAP_ERR_ARG);
    CHECK_EQ(hlsnap_snapshot_read(s, 0, NULL, 0, &err), HLSNAP_OK);
    for (i = 0; hlsnap_snapshot_extent(s, i, &extent); i++) {
        CHECK_EQ(extent.gva, BASE + (uint64_t)s->extents[i].page * P);
        CHECK_EQ(extent.pages, s->extents[i].pages);
        CHECK_EQ(extent.layer, s->extents[i].layer);
        CHECK_EQ(extent.layer_page, s->extents[i].layer_page);
        stored += extent.pages;
    }
    CHECK_EQ(i, s->num_extents);
    CHECK(stored > 40);
    for (i = k = 0; i < HLSNAP__NUM_CPU_FEATURES; i++)
        if (s->guest->features >> i & 1) CHECK_STR(hlsnap_snapshot_feature(s, k++), hlsnap__cpu_feature_names[i]);
    CHECK(hlsnap_snapshot_feature(s, k) == NULL);
}

static void shows_what_is_inside(void) {
    static const hlsnap_oci_guard guards[] = {HLSNAP_OCI_GUARD_PRIVATE, HLSNAP_OCI_GUARD_NONE, HLSNAP_OCI_GUARD_DETECT};
    const char *dir = fresh();
    hlsnap_snapshot *s = snapshot_small(1), *t;
    hlsnap_oci_desc desc = HLSNAP_ZERO;
    hlsnap_snapshot_info info;
    uint8_t byte;
    size_t i;
    check_inside(s);
    hlsnap_snapshot_get_info(s, &info);
    CHECK(info.entry == BASE + 0x123 && info.elf_entry == 0x401000 && info.load_address == 0xffffffffffff0000ull);
    CHECK_EQ(info.generation, 7);
    CHECK_STR(info.cpu_vendor, "AMDisbetter!");
    CHECK_STR(info.hypervisor, "some_vm-1.0+x");
    CHECK_EQ(save(dir, "v1", s, NULL), 0);
    for (i = 0; i < HLSNAP_COUNT(guards); i++) {
        desc.guard = guards[i];
        CHECK_EQ(hlsnap_oci_load(dir, "v1", &desc, &t, NULL, &err), HLSNAP_OK);
        check_inside(t);
        if (i == 2) { /* a change is an error, not what is read */
            CHECK_EQ(sh("for b in %s/blobs/sha256/*; do printf x | dd of=$b bs=1 seek=9 conv=notrunc status=none; done", dir), 0);
            CHECK_EQ(hlsnap_snapshot_read(t, BASE, &byte, 1, &err), HLSNAP_ERR_CHANGED);
        }
        hlsnap_snapshot_release(t);
    }
    hlsnap_snapshot_release(s);
}

static bool note_info(const char *tag, hlsnap_result r, const hlsnap_oci_info *info, void *user) {
    seen *s = (seen *)user;
    snprintf(s->text + strlen(s->text), sizeof(s->text) - strlen(s->text), "%s %d %.15s %lld %llu;", tag, r, info->digest.text,
             (long long)info->own_bytes, (unsigned long long)info->stored_pages);
    return true;
}

static void own_and_shared_bytes(void) {
    const char *dir = fresh();
    hlsnap_snapshot *s = large(200, 1), *base, *next;
    hlsnap_oci_info a, b, again;
    seen got = {""};
    char want[300];
    int64_t all;
    CHECK_EQ(save(dir, "a", s, NULL), 0);
    CHECK_EQ(hlsnap_oci_get_info(dir, "a", &a, &err), HLSNAP_OK);
    CHECK_EQ(a.bytes, bytes_of(dir));
    CHECK_EQ(a.own_bytes, a.bytes);
    CHECK_EQ(a.stored_pages, 204);
    CHECK_EQ(a.pages, 4 + 2 + 8 + 256 + 4 + 16 + 1 + 1);
    CHECK_EQ(a.layers, 1);
    base = load(dir, "a");
    next = derive(base, 30, 5, 2);
    CHECK_EQ(save(dir, "b", next, NULL), 0);
    CHECK_EQ(hlsnap_oci_get_info(dir, "a", &a, &err), HLSNAP_OK);
    CHECK_EQ(hlsnap_oci_get_info(dir, "b", &b, &err), HLSNAP_OK);
    all = bytes_of(dir);
    CHECK_EQ(a.bytes - a.own_bytes, b.bytes - b.own_bytes); /* the base, shared by both */
    CHECK_EQ(a.bytes - a.own_bytes, 204 * 4096 + 13 * 32);
    CHECK_EQ(a.own_bytes + b.own_bytes + 204 * 4096 + 13 * 32, all);
    CHECK_EQ(b.layers, 2);
    CHECK_EQ(b.stored_pages, 204);
    CHECK_EQ(hlsnap_oci_tag(dir, "a", "a2", &err), HLSNAP_OK); /* two tags of one snapshot share nothing with each other */
    CHECK_EQ(hlsnap_oci_get_info(dir, "a", &again, &err), HLSNAP_OK);
    CHECK_EQ(again.own_bytes, a.own_bytes);
    CHECK_EQ(hlsnap_oci_get_info(dir, "a2", &again, &err), HLSNAP_OK);
    CHECK_EQ(again.own_bytes, a.own_bytes);
    snprintf(want, sizeof(want), "a 0 %.15s %lld 204;b 0 %.15s %lld 204;a2 0 %.15s %lld 204;", a.digest.text, (long long)a.own_bytes,
             b.digest.text, (long long)b.own_bytes, a.digest.text, (long long)a.own_bytes);
    CHECK_EQ(hlsnap_oci_list_info(dir, note_info, &got, &err), HLSNAP_OK);
    CHECK_STR(got.text, want);
    CHECK_EQ(hlsnap_oci_list_info(dir, NULL, NULL, &err), HLSNAP_ERR_ARG);
    CHECK_EQ(sh("mv %s/blobs/sha256/%s gone", dir, b.digest.text + 7), 0);
    got.text[0] = 0;
    CHECK_EQ(hlsnap_oci_list_info(dir, note_info, &got, &err), HLSNAP_OK); /* one that cannot be read is listed */
    snprintf(want, sizeof(want), ";b %d %.15s 0 0;a2 0 ", HLSNAP_ERR_FILE, b.digest.text);
    CHECK(strstr(got.text, want) != NULL);
    CHECK_EQ(sh("mv gone %s/blobs/sha256/%s", dir, b.digest.text + 7), 0);
    CHECK_EQ(hlsnap_oci_untag(dir, "a", &err), HLSNAP_OK);
    CHECK_EQ(hlsnap_oci_untag(dir, "a2", &err), HLSNAP_OK);
    CHECK_EQ(hlsnap_oci_gc(dir, 0, NULL, &err), HLSNAP_OK);
    CHECK_EQ(bytes_of(dir), all - (int64_t)a.own_bytes); /* own is what goes */
    CHECK_EQ(hlsnap_oci_get_info(dir, "c", &b, &err), HLSNAP_ERR_NOT_FOUND);
    CHECK_EQ(hlsnap_oci_get_info(dir, "b", NULL, &err), HLSNAP_ERR_ARG);
    hlsnap_snapshot_release(next);
    hlsnap_snapshot_release(base);
    hlsnap_snapshot_release(s);
}

static char seen_reading[80]; /* how often that file is read */
static int num_readings;
static void count_readings(int fd) { num_readings += is_file(fd, seen_reading); }

static int count_of(const char *text, const char *what) {
    int n = 0;
    while ((text = strstr(text, what)) != NULL) n++, text++;
    return n;
}

/* However many entries name a manifest, it is read once; an entry with a wrong size says so and hides nothing of the others. */
static void one_manifest_many_entries(void) {
    const char *dir = fresh();
    hlsnap_snapshot *s = large(20, 1);
    char digest[72];
    seen got = {""};
    int i;
    CHECK_EQ(save(dir, "v1", s, digest), 0);
    CHECK_EQ(sh("sed -i 's|{\"mediaType\":\"application/vnd.oci.image.manifest.*\\(\\]\\)|&|; s|\"manifests\":\\[\\(.*\\)\\]}|\"manifests\":[\\1,\\1,\\1]}|; "
                "s|\"size\":|\"size\":1|' %s/index.json", dir), 0); /* the first one's size is wrong */
    snprintf(seen_reading, sizeof(seen_reading), "%s", digest + 7);
    for (i = 0; i < 2; i++) {
        num_readings = 0;
        at_read = count_readings;
        got.text[0] = 0;
        CHECK_EQ(i ? hlsnap_oci_list_info(dir, note_info, &got, &err) : hlsnap_oci_list(dir, note, &got, &err), HLSNAP_OK);
        at_read = NULL;
        if (!CHECK(num_readings >= 1 && num_readings <= (i ? 5 : 2))) printf("# %d\n", num_readings);
        if (i) {
            char size[20];
            snprintf(size, sizeof(size), "v1 %d ", HLSNAP_ERR_SIZE);
            CHECK(strncmp(got.text, size, strlen(size)) == 0);
            CHECK_EQ(count_of(got.text, ";v1 0 "), 2);
        } else {
            char want[100];
            snprintf(want, sizeof(want), "v1 %.15s 0;v1 %.15s +;v1 %.15s +;", digest, digest, digest);
            CHECK_STR(got.text, want);
        }
    }
    hlsnap_snapshot_release(s);
}

static const char *mover_dir;
static hlsnap_snapshot *mover_next[2];
static int mover_turn;
static void *move_and_collect(void *unused) {
    hlsnap_error e;
    (void)unused;
    CHECK_EQ(hlsnap_oci_save(mover_dir, "v", mover_next[++mover_turn % 2], NULL, NULL, &e), HLSNAP_OK);
    CHECK_EQ(hlsnap_oci_gc(mover_dir, 0, NULL, &e), HLSNAP_OK);
    return NULL;
}
static int index_readings;
static void after_index(int fd) { /* index.json was read, as far as the look whether more follows */
    pthread_t t;
    if (!is_file(fd, "/index.json") || ++index_readings != 2) return;
    at_read = NULL;
    CHECK_EQ(pthread_create(&t, NULL, move_and_collect, NULL), 0);
    CHECK_EQ(pthread_join(t, NULL), 0);
}

/* A tag moves and its old blobs are collected right after the index was read: readers look again. */
static void moved_while_read(void) {
    hlsnap_oci_info info;
    hlsnap_snapshot *s[2], *t = NULL;
    seen got = {""};
    int i;
    mover_dir = fresh();
    for (i = 0; i < 2; i++) s[i] = mover_next[i] = large(20, 1 + (uint64_t)i);
    CHECK_EQ(save(mover_dir, "v", s[0], NULL), 0);
    for (i = 0; i < 4; i++) {
        hlsnap_result r;
        usleep(1100000); /* gc takes whole seconds: what is there is old by then */
        index_readings = 0;
        at_read = after_index;
        r = i == 0   ? hlsnap_oci_load(mover_dir, "v", NULL, &t, NULL, &err)
            : i == 1 ? hlsnap_oci_get_info(mover_dir, "v", &info, &err)
            : i == 2 ? hlsnap_oci_annotations(mover_dir, "v", note_text, &got, &err)
                     : hlsnap_oci_layers(mover_dir, "v", note_layer, &got, &err);
        CHECK(at_read == NULL);
        at_read = NULL;
        if (!CHECK_EQ(r, HLSNAP_OK)) printf("# %d: %s\n", i, err.msg);
    }
    check_same(s[1], t);
    hlsnap_snapshot_release(t);
    hlsnap_snapshot_release(s[0]);
    hlsnap_snapshot_release(s[1]);
}

static void tags(void) {
    const char *dir = fresh();
    hlsnap_snapshot *s = large(20, 1), *o = large(20, 2), *t;
    char d1[72], d2[72];
    CHECK_EQ(save(dir, "v1", s, d1), 0);
    CHECK_EQ(save(dir, "v2", o, d2), 0);
    CHECK_EQ(hlsnap_oci_tag(dir, "v1", "also", &err), HLSNAP_OK);
    CHECK_EQ(hlsnap_oci_tag(dir, d2, "v1", &err), HLSNAP_OK); /* moves */
    t = load(dir, "also");
    if (t) check_same(s, t);
    hlsnap_snapshot_release(t);
    t = load(dir, "v1");
    if (t) check_same(o, t);
    hlsnap_snapshot_release(t);
    CHECK_EQ(hlsnap_oci_tag(dir, "v1", "v1", &err), HLSNAP_OK);
    CHECK_EQ(hlsnap_oci_untag(dir, "also", &err), HLSNAP_OK);
    CHECK_EQ(hlsnap_oci_load(dir, "also", NULL, &t, NULL, &err), HLSNAP_ERR_NOT_FOUND);
    t = load(dir, d1); /* until gc */
    if (t) check_same(s, t);
    hlsnap_snapshot_release(t);
    CHECK_EQ(hlsnap_oci_untag(dir, "also", &err), HLSNAP_ERR_NOT_FOUND);
    CHECK_EQ(hlsnap_oci_tag(dir, "none", "x", &err), HLSNAP_ERR_NOT_FOUND);
    CHECK_EQ(hlsnap_oci_tag(dir, "v1", "a:b", &err), HLSNAP_ERR_ARG);
    CHECK_EQ(hlsnap_oci_tag(dir, "a:b", "x", &err), HLSNAP_ERR_NOT_FOUND);
    CHECK_EQ(hlsnap_oci_untag(dir, d1, &err), HLSNAP_ERR_NOT_FOUND); /* it has none any more */
    CHECK_EQ(hlsnap_oci_untag(dir, d1, &err), HLSNAP_ERR_NOT_FOUND);
    CHECK_EQ(hlsnap_oci_tag("nowhere", "v1", "x", &err), HLSNAP_ERR_NOT_FOUND);
    CHECK_EQ(access("nowhere", F_OK), -1);
    CHECK_EQ(hlsnap_oci_gc("nowhere", 0, NULL, &err), HLSNAP_ERR_NOT_FOUND);
    CHECK_EQ(mkdir("l-empty", 0700) == 0 || errno == EEXIST, 1);
    CHECK_EQ(hlsnap_oci_gc("l-empty", 0, NULL, &err), HLSNAP_ERR_NOT_FOUND); /* no layout, and it does not become one */
    CHECK_EQ(hlsnap_oci_fsck("l-empty", true, &err), HLSNAP_ERR_NOT_FOUND);
    CHECK_EQ(hlsnap_oci_untag("l-empty", "x", &err), HLSNAP_ERR_NOT_FOUND);
    CHECK_EQ(rmdir("l-empty"), 0);
    check_sound(dir);
    hlsnap_snapshot_release(s);
    hlsnap_snapshot_release(o);
}

static void collects(void) {
    const char *dir = fresh();
    hlsnap_snapshot *s = large(200, 1), *next, *o = large(20, 2), *t, *used;
    char d1[72], d2[72];
    uint64_t freed = 1;
    int64_t all;
    CHECK_EQ(save(dir, "base", s, NULL), 0);
    next = derive(s, 30, 5, 2);
    CHECK_EQ(save(dir, "next", next, d1), 0);
    CHECK_EQ(save(dir, "o", o, d2), 0);
    used = load(dir, "o");
    CHECK_EQ(hlsnap_oci_gc(dir, 0, &freed, &err), HLSNAP_OK); /* all is tagged */
    CHECK_EQ(freed, 0);
    CHECK_EQ(num_blobs(dir), 12);
    CHECK_EQ(hlsnap_oci_untag(dir, "base", &err), HLSNAP_OK);
    CHECK_EQ(hlsnap_oci_untag(dir, "o", &err), HLSNAP_OK);
    CHECK_EQ(hlsnap_oci_gc(dir, 3600, &freed, &err), HLSNAP_OK); /* too young */
    CHECK_EQ(freed, 0);
    t = load(dir, d2);
    hlsnap_snapshot_release(t);
    CHECK_EQ(sh("echo x > %s/blobs/sha256/%064d; echo x > %s/blobs/sha256/stray; touch %s/.hlsnap-1-2.tmp; mkdir %s/.hlsnap-tmp; "
                "touch %s/.hlsnap-tmp/.hlsnap-3-4.tmp %s/foreign", dir, 7, dir, dir, dir, dir, dir), 0);
    all = bytes_of(dir);
    CHECK_EQ(hlsnap_oci_gc(dir, 0, &freed, &err), HLSNAP_OK);
    CHECK_EQ(freed, all - bytes_of(dir));
    CHECK_EQ(num_blobs(dir), 7); /* next's six, and what is no blob */
    CHECK_EQ(sh("test -e %s/foreign && test -e %s/blobs/sha256/stray && ! test -e %s/.hlsnap-tmp && ! test -e %s/.hlsnap-1-2.tmp",
                dir, dir, dir, dir), 0);
    CHECK_EQ(hlsnap_oci_load(dir, d2, NULL, &t, NULL, &err), HLSNAP_ERR_NOT_FOUND);
    t = load(dir, "next");
    if (t) check_same(next, t);
    hlsnap_snapshot_release(t);
    check_same(o, used); /* what is loaded lives on */
    CHECK_EQ(sh("rm %s/foreign %s/blobs/sha256/stray", dir, dir), 0);
    check_sound(dir);
    hlsnap_snapshot_release(used);
    hlsnap_snapshot_release(next);
    hlsnap_snapshot_release(s);
    hlsnap_snapshot_release(o);
}

/* Puts a document into the layout and an entry for it into the index. */
static void foreign(const char *dir, const char *type, const char *document) {
    CHECK_EQ(sh("cd %s && printf '%%s' '%s' > f && d=$(sha256sum < f | cut -d' ' -f1) && n=$(wc -c < f) && mv f blobs/sha256/$d && "
                "sed -i \"s|\\\"manifests\\\":\\[|&{\\\"mediaType\\\":\\\"%s\\\",\\\"digest\\\":\\\"sha256:$d\\\",\\\"size\\\":$n},|\" index.json",
                dir, document, type), 0);
}

static void collects_around_others(void) {
    static const char image[] = "{\"schemaVersion\":2,\"config\":{\"mediaType\":\"application/vnd.oci.image.config.v1+json\",\"digest\":"
                                "\"sha256:6b23c0d5f35d1b11f9b683f0b0a617355deb11277d91ae091d399c655b87940d\",\"size\":1},\"layers\":[]}";
    const char *dir = fresh();
    hlsnap_snapshot *s = large(20, 1);
    CHECK_EQ(save(dir, "v1", s, NULL), 0);
    CHECK_EQ(sh("printf C > %s/blobs/sha256/6b23c0d5f35d1b11f9b683f0b0a617355deb11277d91ae091d399c655b87940d", dir), 0);
    foreign(dir, "application/vnd.oci.image.manifest.v1+json", image); /* untagged, and not ours to drop */
    foreign(dir, "application/vnd.example", "anything");
    CHECK_EQ(hlsnap_oci_gc(dir, 0, NULL, &err), HLSNAP_OK);
    CHECK_EQ(num_blobs(dir), 4 + 3);
    /* a manifest that is no JSON leads nowhere; one that is damaged, who knows: nothing goes */
    CHECK_EQ(save(dir, "v2", s, NULL), 0);
    CHECK_EQ(hlsnap_oci_untag(dir, "v1", &err), HLSNAP_OK);
    foreign(dir, "application/vnd.docker.distribution.manifest.v2+json", "no JSON");
    CHECK_EQ(hlsnap_oci_gc(dir, 0, NULL, &err), HLSNAP_OK);
    CHECK_EQ(num_blobs(dir), 4 + 4);
    CHECK_EQ(sh("sha256sum < %s/index.json > before", dir), 0);
    CHECK_EQ(sh("truncate -s 0 %s/blobs/sha256/$(printf 'no JSON' | sha256sum | cut -d' ' -f1)", dir), 0);
    CHECK_EQ(hlsnap_oci_gc(dir, 0, NULL, &err), HLSNAP_ERR_DIGEST);
    CHECK_EQ(sh("rm %s/blobs/sha256/$(printf 'no JSON' | sha256sum | cut -d' ' -f1)", dir), 0);
    CHECK_EQ(hlsnap_oci_gc(dir, 0, NULL, &err), HLSNAP_OK); /* a manifest that is missing leads nowhere */
    CHECK_EQ(sh("sha256sum < %s/index.json | cmp -s - before; rm before", dir), 0);
    CHECK_EQ(num_blobs(dir), 4 + 3);
    hlsnap_snapshot_release(s);
}

/* Documents of others, which lead to a blob in other ways than ours: gc takes nothing that they name, or nothing at all. */
static void collects_nothing_unknown(void) {
    static const struct { const char *what, *document; hlsnap_result gc; } rows[] = {
        {"an array", "[{\"digest\":\"sha256:%s\"}]", HLSNAP_OK},
        {"a number that is no integer", "{\"x\":1.5,\"layers\":[{\"digest\":\"sha256:%s\"}]}", HLSNAP_OK},
        {"a name twice", "{\"a\":\"sha256:%s\",\"a\":1}", HLSNAP_OK},
        {"another member than digest", "{\"fsLayers\":[{\"blobSum\":\"sha256:%s\"}]}", HLSNAP_OK},
        {"nested deep", "[[[[[[[[[[[[[[[[[[\"sha256:%s\"]]]]]]]]]]]]]]]]]]", HLSNAP_OK},
        {"a member's name", "{\"sha256:%s\":{}}", HLSNAP_OK},
        {"part of a string", "{\"image\":\"name@sha256:%s\"}", HLSNAP_OK},
        {"no JSON", "layer sha256:%s", HLSNAP_OK}};
    size_t i;
    for (i = 0; i <= HLSNAP_COUNT(rows) + 1; i++) {
        const char *dir = fresh();
        hlsnap_snapshot *s = large(20, 1);
        char document[300], name[65];
        CHECK_EQ(save(dir, "v1", s, NULL), 0);
        CHECK_EQ(sh("cd %s && printf layer > f && d=$(sha256sum < f | cut -d' ' -f1) && mv f blobs/sha256/$d && printf %%s $d > ../name", dir), 0);
        {
            FILE *f = fopen("name", "r");
            CHECK(f && fgets(name, sizeof(name), f));
            if (f) fclose(f);
        }
        if (i < HLSNAP_COUNT(rows)) {
            snprintf(document, sizeof(document), rows[i].document, name);
            foreign(dir, "application/vnd.example", document);
        } else if (i == HLSNAP_COUNT(rows)) { /* large */
            CHECK_EQ(sh("cd %s && { printf '{\"x\":\"%%*s\",\"d\":\"sha256:%s\"}' 5000000; } > f && d=$(sha256sum < f | cut -d' ' -f1) && n=$(wc -c < f) && "
                        "mv f blobs/sha256/$d && sed -i \"s|\\\"manifests\\\":\\[|&{\\\"mediaType\\\":\\\"a/b\\\",\\\"digest\\\":\\\"sha256:$d\\\",\\\"size\\\":$n},|\" index.json", dir, name), 0);
        } else { /* of another algorithm */
            CHECK_EQ(sh("cd %s && mkdir blobs/sha512 && echo '{\"digest\":\"sha256:%s\"}' > blobs/sha512/%0128d && "
                        "sed -i 's|\"manifests\":\\[|&{\"mediaType\":\"a/b\",\"digest\":\"sha512:%0128d\",\"size\":84},|' index.json", dir, name, 7, 7), 0);
        }
        if (!CHECK_EQ(hlsnap_oci_gc(dir, 0, NULL, &err), HLSNAP_OK)) printf("# %s: %s\n", i < HLSNAP_COUNT(rows) ? rows[i].what : "too large, or sha512", err.msg);
        CHECK_EQ(sh("test -e %s/blobs/sha256/%s", dir, name), 0);
        CHECK_EQ(hlsnap_oci_fsck(dir, false, &err), HLSNAP_OK);
        hlsnap_snapshot_release(s);
    }
    CHECK_EQ(unlink("name"), 0);
}

/* A tag whose manifest is missing: what that led to may come to be wanted. Without its tag, nobody wants it. */
static void collects_nothing_without_a_manifest(void) {
    const char *dir = fresh();
    hlsnap_snapshot *s = large(20, 1), *o = large(20, 2), *t;
    char digest[72];
    CHECK_EQ(save(dir, "v1", s, digest), 0);
    CHECK_EQ(save(dir, "v2", o, NULL), 0);
    CHECK_EQ(sh("mv %s/blobs/sha256/%s kept", dir, digest + 7), 0);
    CHECK_EQ(hlsnap_oci_gc(dir, 0, NULL, &err), HLSNAP_ERR_FILE);
    CHECK_EQ(num_blobs(dir), 7);
    CHECK_EQ(sh("mv kept %s/blobs/sha256/%s", dir, digest + 7), 0);
    t = load(dir, "v1");
    if (t) check_same(s, t);
    hlsnap_snapshot_release(t);
    CHECK_EQ(sh("rm %s/blobs/sha256/%s", dir, digest + 7), 0);
    CHECK_EQ(hlsnap_oci_untag(dir, "v1", &err), HLSNAP_OK);
    CHECK_EQ(hlsnap_oci_gc(dir, 0, NULL, &err), HLSNAP_OK);
    CHECK_EQ(num_blobs(dir), 4);
    check_sound(dir); /* its entry went, too */
    /* one that is damaged */
    CHECK_EQ(save(dir, "v1", s, digest), 0);
    CHECK_EQ(sh("echo >> %s/blobs/sha256/%s", dir, digest + 7), 0);
    CHECK_EQ(hlsnap_oci_gc(dir, 0, NULL, &err), HLSNAP_ERR_DIGEST);
    CHECK_EQ(num_blobs(dir), 8);
    CHECK_EQ(hlsnap_oci_untag(dir, "v1", &err), HLSNAP_OK);
    CHECK_EQ(hlsnap_oci_gc(dir, 3600, NULL, &err), HLSNAP_ERR_DIGEST); /* too young to go, and still it may lead somewhere */
    CHECK_EQ(hlsnap_oci_gc(dir, 0, NULL, &err), HLSNAP_OK);
    CHECK_EQ(num_blobs(dir), 4);
    check_sound(dir);
    hlsnap_snapshot_release(s);
    hlsnap_snapshot_release(o);
}

/* What an entry says of its artifact is advice: what is sound and is no snapshot stays, and what it leads to. */
static void collects_no_others_of_our_type(void) {
    static const char artifact[] = "\"artifactType\":\"" HLSNAP__OCI_ARTIFACT_TYPE "\"";
    const char *dir = fresh();
    hlsnap_snapshot *s = large(20, 1);
    char digest[72], document[600];
    int i;
    CHECK_EQ(save(dir, "v1", s, digest), 0);
    for (i = 0; i < 2; i++) {
        if (i) /* an index that leads to the snapshot, as other tools make */
            snprintf(document, sizeof(document), "{\"schemaVersion\":2,%s,\"manifests\":[{\"mediaType\":\"" HLSNAP__OCI_MANIFEST_TYPE
                     "\",\"digest\":\"%s\",\"size\":1}]}", artifact, digest);
        else
            snprintf(document, sizeof(document), "{\"schemaVersion\":2,\"config\":{\"mediaType\":\"a/b\",\"digest\":\"sha256:%064d\",\"size\":1},\"layers\":[]}", 1);
        foreign(dir, i ? HLSNAP__OCI_INDEX_TYPE : HLSNAP__OCI_MANIFEST_TYPE, document);
        CHECK_EQ(sh("sed -i 's|\"manifests\":\\[{|&%s,|' %s/index.json", artifact, dir), 0);
    }
    CHECK_EQ(hlsnap_oci_untag(dir, "v1", &err), HLSNAP_OK);
    CHECK_EQ(hlsnap_oci_gc(dir, 0, NULL, &err), HLSNAP_OK);
    CHECK_EQ(num_blobs(dir), 4 + 2);
    CHECK_EQ(sh("test $(grep -o artifactType %s/index.json | wc -l) = 3", dir), 0); /* nor the snapshot's entry */
    hlsnap_snapshot_release(s);
}

/* A tag of what is no snapshot is somebody else's. */
static void untags_its_own_only(void) {
    const char *dir = fresh();
    hlsnap_snapshot *s = large(20, 1);
    CHECK_EQ(save(dir, "v1", s, NULL), 0);
    foreign(dir, "application/vnd.oci.image.manifest.v1+json", "{\"schemaVersion\":2,\"config\":{\"mediaType\":\"a/b\",\"digest\":\"sha256:"
            "6b23c0d5f35d1b11f9b683f0b0a617355deb11277d91ae091d399c655b87940d\",\"size\":1},\"layers\":[]}");
    CHECK_EQ(sh("sed -i 's|\"manifests\":\\[{|&\"annotations\":{\"org.opencontainers.image.ref.name\":\"app\"},|' %s/index.json && cp %s/index.json before", dir, dir), 0);
    CHECK_EQ(hlsnap_oci_untag(dir, "app", &err), HLSNAP_ERR_MEDIA_TYPE);
    CHECK_EQ(hlsnap_oci_tag(dir, "app", "x", &err), HLSNAP_ERR_MEDIA_TYPE);
    CHECK_EQ(sh("cmp before %s/index.json", dir), 0);
    foreign(dir, "application/vnd.example", "x");
    CHECK_EQ(sh("sed -i 's|\"manifests\":\\[{|&\"annotations\":{\"org.opencontainers.image.ref.name\":\"app\"},|' %s/index.json && cp %s/index.json before", dir, dir), 0);
    CHECK_EQ(hlsnap_oci_untag(dir, "app", &err), HLSNAP_ERR_MEDIA_TYPE); /* listed twice */
    CHECK_EQ(sh("cmp before %s/index.json", dir), 0);
    CHECK_EQ(hlsnap_oci_untag(dir, "v1", &err), HLSNAP_OK);
    hlsnap_snapshot_release(s);
}

static void another_layers_list(hlsnap_snapshot *s, hlsnap_snapshot *o) {
    const char *dir = fresh();
    char digest[72], chunks[2][72], config[2][72], script[400];
    hlsnap_snapshot *t = NULL;
    FILE *f;
    int i;
    CHECK_EQ(save(dir, "v2", o, NULL), 0);
    CHECK_EQ(save(dir, "v1", s, digest), 0);
    for (i = 0; i < 2; i++) {
        hlsnap__place *place = hlsnap__layer_place_get((i ? o : s)->layers[0], 0);
        if (CHECK(place != NULL)) memcpy(chunks[i], place->chunks, 72);
        hlsnap__place_release(place);
    }
    CHECK_EQ(hlsnap_oci_fsck(dir, false, &err), HLSNAP_OK);
    CHECK_EQ(sh("cd %s && c=$(sed 's|.*config.v1+json\",\"digest\":\"sha256:\\([0-9a-f]*\\).*|\\1|' blobs/sha256/%s) && "
                "sed 's|%s|%s|' blobs/sha256/$c > c && d=$(sha256sum < c | cut -d' ' -f1) && mv c blobs/sha256/$d && echo $c $d > ../c",
                dir, digest + 7, chunks[0], chunks[1]), 0); /* its config names the list, too */
    f = fopen("c", "r");
    CHECK(f && fscanf(f, "%64s %64s", config[0], config[1]) == 2);
    if (f) fclose(f);
    CHECK_EQ(unlink("c"), 0);
    snprintf(script, sizeof(script), "s|%s|%s|;s|%s|%s|", chunks[0], chunks[1], config[0], config[1]);
    edit_manifest(dir, digest, script);
    CHECK_EQ(hlsnap_oci_load(dir, "v1", NULL, &t, NULL, &err), HLSNAP_ERR_DIGEST);
    CHECK_EQ(hlsnap_oci_fsck(dir, false, &err), HLSNAP_ERR_DIGEST);
}

static void business_of_others(hlsnap_snapshot *s) {
    const char *dir;
    int i;
    /* of others, that is their business: one for each platform, say */
    dir = fresh();
    CHECK_EQ(save(dir, "v1", s, NULL), 0);
    for (i = 0; i < 2; i++) {
        foreign(dir, "application/vnd.example", i ? "x" : "y");
        CHECK_EQ(sh("sed -i 's|\"manifests\":\\[{|&\"annotations\":{\"org.opencontainers.image.ref.name\":\"app\"},|' %s/index.json", dir), 0);
    }
    CHECK_EQ(hlsnap_oci_fsck(dir, false, &err), HLSNAP_OK);
    /* a subject that is not here, a layer that can be had elsewhere */
    dir = fresh();
    CHECK_EQ(save(dir, "v1", s, NULL), 0);
    foreign(dir, "application/vnd.oci.image.manifest.v1+json", "{\"schemaVersion\":2,\"subject\":{\"digest\":\"sha256:"
            "00000000000000000000000000000000000000000000000000000000000000aa\"},\"layers\":[{\"urls\":[],\"digest\":\"sha256:"
            "00000000000000000000000000000000000000000000000000000000000000bb\"}]}");
    CHECK_EQ(hlsnap_oci_fsck(dir, false, &err), HLSNAP_OK); /* that it has no config is its tool's business */
}

/* What a load would refuse, fsck finds; what may well be absent, it does not ask for. */
static void finds_what_does_not_load(void) {
    const char *dir;
    hlsnap_snapshot *s = large(20, 1), *o = large(20, 2);
    char digest[72], memory[72], text[120];
    /* a second entry of the same manifest, with a wrong size */
    dir = fresh();
    CHECK_EQ(save(dir, "v1", s, digest), 0);
    CHECK_EQ(hlsnap_oci_tag(dir, "v1", "v2", &err), HLSNAP_OK);
    CHECK_EQ(sh("sed -i 's|\"size\":|&1|2' %s/index.json", dir), 0);
    CHECK_EQ(hlsnap_oci_fsck(dir, false, &err), HLSNAP_ERR_SIZE);
    /* an entry that says a manifest has no bytes */
    dir = fresh();
    CHECK_EQ(save(dir, "v1", s, digest), 0);
    CHECK_EQ(sh("sed -i 's|\"size\":[0-9]*|\"size\":0|' %s/index.json", dir), 0);
    CHECK_EQ(hlsnap_oci_fsck(dir, false, &err), HLSNAP_ERR_INDEX);
    /* who names a layer only says nothing of its size */
    dir = fresh();
    CHECK_EQ(save(dir, "v1", s, digest), 0);
    memory_of(s, 0, memory);
    snprintf(text, sizeof(text), "{\"of\":\"%s\"}", memory);
    foreign(dir, "application/vnd.example", text);
    CHECK_EQ(hlsnap_oci_fsck(dir, false, &err), HLSNAP_OK);
    another_layers_list(s, o);
    /* a tag that is listed twice */
    dir = fresh();
    CHECK_EQ(save(dir, "v1", s, NULL), 0);
    CHECK_EQ(save(dir, "v2", o, NULL), 0);
    CHECK_EQ(sh("sed -i 's|\"v2\"|\"v1\"|' %s/index.json", dir), 0);
    CHECK_EQ(hlsnap_oci_fsck(dir, false, &err), HLSNAP_ERR_AMBIGUOUS);
    business_of_others(s);
    /* what is no layout is left as it is */
    dir = fresh();
    CHECK_EQ(sh("mkdir -p %s/blobs/sha256 && echo '{}' > %s/index.json", dir, dir), 0);
    CHECK_EQ(hlsnap_oci_fsck(dir, true, &err), HLSNAP_ERR_INDEX);
    CHECK_EQ(sh("test \"$(ls -A %s | tr '\\n' ' ')\" = 'blobs index.json '", dir), 0);
    hlsnap_snapshot_release(s);
    hlsnap_snapshot_release(o);
}

static pid_t bystander;
static void fork_now(int fd) { /* another thread's fork without exec, when the index is read: under its lock */
    if (!is_file(fd, "/index.json") || ++index_readings != 1) return;
    at_read = NULL;
    fflush(stdout);
    bystander = fork();
    if (bystander == 0) {
        sleep(30);
        _exit(0);
    }
}

/* Nobody waits for a lock that a child has inherited. */
static void locks_end_with_the_call(void) {
    const char *dir = fresh();
    hlsnap_snapshot *s = large(20, 1);
    int i;
    CHECK_EQ(save(dir, "v1", s, NULL), 0);
    for (i = 0; i < 2; i++) {
        time_t began;
        index_readings = 0;
        at_read = fork_now;
        CHECK_EQ(i ? hlsnap_oci_gc(dir, 0, NULL, &err) : hlsnap_oci_tag(dir, "v1", "v2", &err), HLSNAP_OK);
        at_read = NULL;
        if (!CHECK(index_readings == 1)) break; /* else there is no bystander */
        began = time(NULL);
        CHECK_EQ(save(dir, "v3", s, NULL), 0);
        CHECK_EQ(hlsnap_oci_gc(dir, 0, NULL, &err), HLSNAP_OK);
        CHECK(time(NULL) - began < 15);
        kill(bystander, SIGKILL);
        CHECK_EQ(waitpid(bystander, NULL, 0), bystander);
    }
    hlsnap_snapshot_release(s);
}

/* Savers that never pause do not keep gc waiting: it comes after those that were before it. */
static void gc_gets_its_turn(void) {
    const char *dir = fresh();
    hlsnap_snapshot *s = large(20, 1);
    uint32_t *ended = (uint32_t *)mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0), most = 0;
    pid_t pid[4];
    int i, status;
    CHECK_EQ(save(dir, "v1", s, NULL), 0);
    for (i = 0; i < 4; i++) {
        fflush(stdout);
        pid[i] = fork();
        if (pid[i] == 0) {
            char tag[16];
            snprintf(tag, sizeof(tag), "s%d", i);
            for (alarm(100); hlsnap_oci_save(dir, tag, s, NULL, NULL, &err) == HLSNAP_OK;) __atomic_fetch_add(ended, 1, __ATOMIC_RELAXED);
            _exit(1);
        }
    }
    usleep(100000);
    alarm(60); /* ends the test where it still waits */
    for (i = 0; i < 20; i++) {
        uint32_t before = __atomic_load_n(ended, __ATOMIC_RELAXED), n;
        CHECK_EQ(i % 4 ? hlsnap_oci_gc(dir, 0, NULL, &err) : hlsnap_oci_fsck(dir, true, &err), HLSNAP_OK);
        n = __atomic_load_n(ended, __ATOMIC_RELAXED) - before;
        if (n > most) most = n;
        usleep(2000);
    }
    alarm(0);
    printf("# at most %u saves went before it\n", most);
    for (i = 0; i < 4; i++) {
        kill(pid[i], SIGKILL);
        CHECK_EQ(waitpid(pid[i], &status, 0), pid[i]);
        CHECK_EQ(WIFSIGNALED(status) ? WTERMSIG(status) : 0, SIGKILL);
    }
    munmap(ended, 4096);
    hlsnap_snapshot_release(s);
}

static void checks_and_repairs(void) {
    const char *dir = fresh();
    hlsnap_snapshot *s = large(40, 1), *base;
    char path[120];
    CHECK_EQ(save(dir, "v1", s, NULL), 0);
    base = load(dir, "v1");
    path_of(dir, base, 0, path, sizeof(path));
    CHECK_EQ(hlsnap_oci_fsck(dir, false, &err), HLSNAP_OK);
    CHECK_EQ(sh("rm %s/oci-layout", dir), 0);
    CHECK_EQ(hlsnap_oci_fsck(dir, false, &err), HLSNAP_ERR_FILE);
    CHECK_EQ(hlsnap_oci_fsck(dir, true, &err), HLSNAP_OK);
    check_sound(dir);
    CHECK_EQ(sh("echo x > %s/blobs/sha256/%064d; touch %s/.hlsnap-1-2.tmp", dir, 7, dir), 0);
    CHECK_EQ(hlsnap_oci_fsck(dir, false, &err), HLSNAP_ERR_DIGEST); /* no entry leads there, but its name is a lie */
    CHECK_EQ(hlsnap_oci_fsck(dir, true, &err), HLSNAP_OK);
    check_sound(dir);
    CHECK_EQ(sh("echo y > %s/blobs/sha256/stray", dir), 0);
    CHECK_EQ(hlsnap_oci_fsck(dir, true, &err), HLSNAP_ERR_FILE); /* who knows whose it is */
    CHECK_EQ(sh("rm %s/blobs/sha256/stray", dir), 0);
    CHECK_EQ(sh("printf x | dd of=%s bs=1 seek=9000 conv=notrunc status=none", path), 0);
    CHECK_EQ(hlsnap_oci_fsck(dir, true, &err), HLSNAP_ERR_DIGEST); /* needed: reported, never removed */
    CHECK(strstr(err.msg, strrchr(path, '/') + 1) != NULL);
    CHECK_EQ(access(path, F_OK), 0);
    CHECK_EQ(save(dir, "v1", s, NULL), 0); /* mended */
    check_sound(dir);
    CHECK_EQ(sh("truncate -s 4096 %s", path), 0);
    CHECK_EQ(hlsnap_oci_fsck(dir, true, &err), HLSNAP_ERR_SIZE);
    CHECK_EQ(sh("rm %s", path), 0);
    CHECK_EQ(hlsnap_oci_fsck(dir, true, &err), HLSNAP_ERR_FILE);
    CHECK_EQ(hlsnap_oci_fsck("nowhere", false, &err), HLSNAP_ERR_NOT_FOUND);
    CHECK_EQ(hlsnap_oci_fsck(NULL, false, &err), HLSNAP_ERR_ARG);
    hlsnap_snapshot_release(base);
    hlsnap_snapshot_release(s);
}

static pthread_t first_thread;
static void others_are_slow(int fd) {
    (void)fd;
    if (!pthread_equal(pthread_self(), first_thread)) usleep(200000);
}

/* What is written anew was verified before, whatever the desc says of loads. */
static void flattens_what_is_verified(void) {
    const char *dir = fresh();
    hlsnap_snapshot *s = large(200, 1), *t = NULL;
    hlsnap_oci_desc desc = desc_of(HLSNAP_OCI_GUARD_NONE, 2, true);
    char path[120];
    CHECK_EQ(save(dir, "v1", s, NULL), 0);
    path_of(dir, s, 0, path, sizeof(path));
    CHECK_EQ(sh("printf x | dd of=%s bs=1 seek=500000 conv=notrunc status=none", path), 0);
    first_thread = pthread_self();
    at_read = others_are_slow;
    desc.disable_verify = true;
    CHECK_EQ(hlsnap_oci_flatten(dir, "v1", "flat", &desc, NULL, &err), HLSNAP_ERR_DIGEST);
    at_read = NULL;
    CHECK_EQ(hlsnap_oci_load(dir, "flat", NULL, &t, NULL, &err), HLSNAP_ERR_NOT_FOUND);
    hlsnap_snapshot_release(s);
}

static void flattens(void) {
    const char *dir = fresh();
    hlsnap_snapshot *s = large(200, 1), *next, *t;
    hlsnap_oci_digest flat, whole;
    uint32_t i;
    CHECK_EQ(save(dir, "x", s, NULL), 0);
    for (i = 1; i < 5; i++) {
        next = derive(s, 16 + 7 * i, 3, 90 + i);
        hlsnap_snapshot_release(s);
        s = next;
        CHECK_EQ(save(dir, "x", s, NULL), 0);
    }
    CHECK_EQ(layers_of(dir, "x"), 5);
    CHECK_EQ(hlsnap_oci_flatten(dir, "x", "flat", NULL, &flat, &err), HLSNAP_OK);
    CHECK_EQ(layers_of(dir, "flat"), 1);
    CHECK_EQ(layers_of(dir, "x"), 5);
    t = load(dir, "flat");
    if (t) check_same(s, t);
    hlsnap_snapshot_release(t);
    t = load(dir, "x"); /* a new process that saves all of it elsewhere writes the very same bytes */
    CHECK_EQ(hlsnap_oci_save(fresh(), "y", t, NULL, &whole, &err), HLSNAP_OK);
    CHECK_STR(flat.text, whole.text);
    hlsnap_snapshot_release(t);
    CHECK_EQ(hlsnap_oci_flatten(dir, "x", "x", NULL, NULL, &err), HLSNAP_OK);
    CHECK_EQ(layers_of(dir, "x"), 1);
    CHECK_EQ(hlsnap_oci_flatten(dir, "none", "x", NULL, NULL, &err), HLSNAP_ERR_NOT_FOUND);
    CHECK_EQ(hlsnap_oci_gc(dir, 0, NULL, &err), HLSNAP_OK);
    CHECK_EQ(num_blobs(dir), 4);
    check_sound(dir);
    hlsnap_snapshot_release(s);
}

static int saves(void) { return is_quick() ? 40 : 200; } /* of each saver */

/* Saves of their own tags and of one that all share, deltas now and then, untagging of what went before. */
static void saver(const char *dir, int number) {
    hlsnap_snapshot *s = large(100, (uint64_t)number % 2 + 1);
    hlsnap_error e;
    int i;
    for (i = 0; i < saves(); i++) {
        char tag[40];
        hlsnap_snapshot *next = derive(s, 16 + (uint32_t)i % 90, 2, (uint64_t)(number * 1000 + i));
        hlsnap_result r;
        hlsnap_snapshot_release(s);
        s = next;
        snprintf(tag, sizeof(tag), "p%d-%d", number, i);
        r = hlsnap_oci_save(dir, i % 10 ? tag : "shared", s, NULL, NULL, &e);
        if (!r && i % 10 == 0) r = hlsnap_oci_save(dir, tag, s, NULL, NULL, &e);
        snprintf(tag, sizeof(tag), "p%d-%d", number, i - 20);
        if (!r && i >= 20) r = hlsnap_oci_untag(dir, tag, &e);
        if (r) {
            printf("# saver %d, %d: %s\n", number, i, e.msg);
            fflush(stdout);
            _exit(1);
        }
    }
    _exit(0);
}

/* Loads what is there: whatever a tag means at the moment is whole. */
static bool load_it(const char *tag, const hlsnap_oci_digest *digest, uint64_t bytes, void *user) {
    hlsnap_snapshot *s = NULL;
    hlsnap_error e;
    (void)bytes;
    if (tag[0] && hlsnap_oci_load((const char *)user, tag, NULL, &s, NULL, &e) && e.code != HLSNAP_ERR_NOT_FOUND) {
        printf("# reader: %s %.20s: %s\n", tag, digest->text, e.msg);
        fflush(stdout);
        _exit(1);
    }
    hlsnap_snapshot_release(s);
    return true;
}

static void attendant(const char *dir, bool collect) { /* until it is told to go */
    hlsnap_error e;
    for (;;) {
        const hlsnap_result r = collect ? hlsnap_oci_gc(dir, 0, NULL, &e) : hlsnap_oci_list(dir, load_it, (void *)(uintptr_t)dir, &e);
        if (r && r != HLSNAP_ERR_FILE && r != HLSNAP_ERR_NOT_FOUND) { /* until the first save there is no layout */
            printf("# %s: %s\n", collect ? "gc" : "reader", e.msg);
            fflush(stdout);
            _exit(1);
        }
        usleep(collect ? 20000 : 1000);
    }
}

/* Four savers with 200 saves each (QUICK, or with sanitizers: 40), two readers, one who collects: no tag is lost, none is ever seen half. */
static void many_at_once(void) {
    const char *dir = fresh();
    pid_t pid[7];
    int i, k, status, found = 0;
    hlsnap_error e;
    for (i = 0; i < 7; i++) {
        fflush(stdout);
        pid[i] = fork();
        if (pid[i] == 0 && i < 4) saver(dir, i);
        if (pid[i] == 0) attendant(dir, i == 6);
    }
    for (i = 0; i < 4; i++) {
        CHECK_EQ(waitpid(pid[i], &status, 0), pid[i]);
        CHECK_EQ(status, 0);
    }
    for (i = 4; i < 7; i++) {
        kill(pid[i], SIGKILL);
        CHECK_EQ(waitpid(pid[i], &status, 0), pid[i]);
        CHECK_EQ(WIFSIGNALED(status) ? WTERMSIG(status) : 0, SIGKILL); /* none had ended with an error */
    }
    CHECK_EQ(hlsnap_oci_gc(dir, 0, NULL, &err), HLSNAP_OK);
    for (i = 0; i < 4; i++)
        for (k = saves() - 20; k < saves(); k++) {
            char tag[40];
            hlsnap_snapshot *s = NULL;
            snprintf(tag, sizeof(tag), "p%d-%d", i, k);
            found += hlsnap_oci_load(dir, tag, NULL, &s, NULL, &e) == HLSNAP_OK;
            hlsnap_snapshot_release(s);
        }
    CHECK_EQ(found, 80);
    check_sound(dir);
    CHECK_EQ(sh("rm -rf %s", dir), 0);
}

/* ---- failing allocations ---- */

static const char *oom_dir;
static hlsnap_snapshot *oom_next;  /* a delta over what the layout holds */

static bool nothing(const char *a, const char *b, void *user) { (void)a, (void)b, (void)user; return true; }
static hlsnap_result oom_list(void) {
    seen got = {""};
    return hlsnap_oci_list(oom_dir, note, &got, &err);
}
static hlsnap_result oom_info(void) {
    hlsnap_oci_info info;
    return hlsnap_oci_get_info(oom_dir, "v2", &info, &err);
}
static hlsnap_result oom_annotations(void) { return hlsnap_oci_annotations(oom_dir, "v2", nothing, NULL, &err); }
static hlsnap_result oom_list_info(void) {
    seen got = {""};
    return hlsnap_oci_list_info(oom_dir, note_info, &got, &err);
}
static hlsnap_result oom_layers(void) {
    seen got = {""};
    return hlsnap_oci_layers(oom_dir, "v2", note_layer, &got, &err);
}
static hlsnap_result oom_tag(void) { return hlsnap_oci_tag(oom_dir, "v1", "v3", &err); }
static hlsnap_result oom_untag(void) {
    const hlsnap_result r = hlsnap_oci_untag(oom_dir, "v3", &err);
    return r == HLSNAP_ERR_NOT_FOUND ? HLSNAP_OK : r;
}
static hlsnap_result oom_gc(void) { return hlsnap_oci_gc(oom_dir, 0, NULL, &err); }
static hlsnap_result oom_fsck(void) { return hlsnap_oci_fsck(oom_dir, true, &err); }
static hlsnap_result oom_flatten(void) { return hlsnap_oci_flatten(oom_dir, "v2", "flat", NULL, NULL, &err); }
static hlsnap_result oom_save(void) { return hlsnap_oci_save(oom_dir, "v4", oom_next, NULL, NULL, &err); }
static hlsnap_result oom_load(hlsnap_oci_guard guard, bool later) {
    const hlsnap_oci_desc d = desc_of(guard, 3, later);
    hlsnap_snapshot *s = NULL;
    hlsnap_result r = hlsnap_oci_load(oom_dir, "v2", &d, &s, NULL, &err);
    if (!r) r = hlsnap__snapshot_check(s, true, &err);
    hlsnap_snapshot_release(s);
    return r;
}
static hlsnap_result oom_load_detect(void) { return oom_load(HLSNAP_OCI_GUARD_DETECT, false); }
static hlsnap_result oom_load_lease(void) { return oom_load(HLSNAP_OCI_GUARD_LEASE, true); }
static hlsnap_result oom_load_private(void) { return oom_load(HLSNAP_OCI_GUARD_PRIVATE, true); }

/* The k-th allocation fails, for rising k, until none is left to fail: an error, nothing lost, nothing left behind. */
static void failing_allocations(void) {
    static const struct { const char *name; hlsnap_result (*run)(void); long least; } rows[] = {
        {"list", oom_list, 8}, {"info", oom_info, 17}, {"list_info", oom_list_info, 17}, {"annotations", oom_annotations, 5}, {"layers", oom_layers, 5}, {"tag", oom_tag, 8}, {"untag", oom_untag, 6},
        {"gc", oom_gc, 16}, {"fsck", oom_fsck, 25}, {"flatten", oom_flatten, 35}, {"save", oom_save, 11}, {"load, DETECT", oom_load_detect, 21},
        {"load, LEASE", oom_load_lease, 22}, {"load, PRIVATE", oom_load_private, 22}};
    hlsnap_snapshot *s = large(100, 1);
    size_t i;
    oom_dir = fresh();
    CHECK_EQ(save(oom_dir, "v1", s, NULL), 0);
    oom_next = derive(s, 30, 5, 2);
    CHECK_EQ(save(oom_dir, "v2", oom_next, NULL), 0);
    for (i = 0; i < HLSNAP_COUNT(rows); i++) {
        const int fds = count_fds();
        long k, live = alloc_live;
        for (k = 0; k < 1000; k++) {
            hlsnap_result r;
            long left;
            alloc_left = k;
            r = rows[i].run();
            left = alloc_left;
            alloc_left = -1;
            if (!CHECK(r == HLSNAP_OK || r == HLSNAP_ERR_MEMORY)) printf("# %s, %ld: %s\n", rows[i].name, k, err.msg);
            if (r) CHECK_EQ(err.code, HLSNAP_ERR_MEMORY);
            if (rows[i].run != oom_save) CHECK_EQ(alloc_live, live); /* a save leaves what layers remember */
            CHECK_EQ(count_fds(), fds);
            if (left >= 0) break;
        }
        printf("# %s: %ld allocations\n", rows[i].name, k);
        CHECK(k >= rows[i].least && k < 1000);
    }
    check_sound(oom_dir);
    hlsnap_snapshot_release(oom_next);
    hlsnap_snapshot_release(s);
    CHECK_EQ(alloc_live, 0);
}

static void read_only_layouts(void) { /* nothing that only reads needs to write */
    const char *dir = fresh();
    hlsnap_snapshot *s = large(20, 1), *t;
    hlsnap_oci_info info;
    seen got = {""};
    CHECK_EQ(save(dir, "v1", s, NULL), 0);
    CHECK_EQ(sh("rm %s/.hlsnap.lock", dir), 0);
    CHECK_EQ(hlsnap_oci_list(dir, note, &got, &err), HLSNAP_OK);
    CHECK_EQ(hlsnap_oci_get_info(dir, "v1", &info, &err), HLSNAP_OK);
    CHECK_EQ(hlsnap_oci_fsck(dir, false, &err), HLSNAP_OK);
    t = load(dir, "v1");
    hlsnap_snapshot_release(t);
    CHECK_EQ(sh("test -e %s/.hlsnap.lock", dir) != 0, 1);
    hlsnap_snapshot_release(s);
}

static const test_row tests[] = {
    TEST(delta_of_a_loaded_snapshot), TEST(delta_without_loading), TEST(unsaved_layers_become_one),
    TEST(small_layers_are_merged), TEST(overwritten_pages_go), TEST(joined_no_more_than_needed), TEST(joined_over_a_base), TEST(written_whole_beyond_half),
    TEST(zero_pages_are_no_layer), TEST(another_layout_gets_all),
    TEST(unsound_base_is_not_shared), TEST(base_removed_during_the_save), TEST(unverified_base_is_not_shared), TEST(same_pages_elsewhere), TEST(few_different_pages),
    TEST(foretold_digest), TEST(others_save_meanwhile), TEST(hashes_what_was_loaded), TEST(hashes_no_more_than_max_bytes), TEST(young_is_hashed_again), TEST(verified_chunks_are_remembered), TEST(one_byte_is_found),
    TEST(changes_are_noticed), TEST(leases_hold_writers), TEST(released_while_verified), TEST(verified_in_a_child), TEST(locked_in_a_child), TEST(threads_are_bounded), TEST(lists),
    TEST(annotations), TEST(lists_layers), TEST(shows_what_is_inside), TEST(own_and_shared_bytes), TEST(one_manifest_many_entries),
    TEST(moved_while_read), TEST(tags), TEST(collects), TEST(collects_around_others),
    TEST(collects_nothing_unknown), TEST(collects_nothing_without_a_manifest), TEST(collects_no_others_of_our_type), TEST(untags_its_own_only), TEST(finds_what_does_not_load),
    TEST(locks_end_with_the_call), TEST(gc_gets_its_turn), TEST(checks_and_repairs), TEST(flattens_what_is_verified),
    TEST(flattens), TEST(many_at_once), TEST(failing_allocations), TEST(read_only_layouts)};

int main(int argc, char **argv) {
    char home[200];
    const char *tmp = getenv("TMPDIR");
    int r;
    snprintf(home, sizeof(home), "%s/hlsnap-layers-XXXXXX", tmp ? tmp : "/tmp"); /* its other builds may run beside it */
    if (!mkdtemp(home) || chdir(home) != 0) return 1;
    r = TEST_MAIN(tests, argc, argv);
    if (chdir("/") == 0) sh("rm -rf %s", home);
    return r;
}

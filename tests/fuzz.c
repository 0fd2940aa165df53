/* fuzz.c - libFuzzer targets for everything that reads what a stranger wrote. One binary; the environment's FUZZ_TARGET says
   which: layout, index, manifest, config, chunks, dir (OCI Image Layouts); elf; boot, host (a hostile guest); guest (the guest's
   runtime, run natively, reading its host). What stands in front of a document, digests, sizes and descriptors, is made by
   the harness, so that inputs reach behind it: in JSON inputs "$m0" is a digest and $M0 the size that goes with it.
   cc: clang -std=gnu11 -g -O1 -fsanitize=fuzzer,address,undefined -I.. fuzz.c -o fuzz -lcjson
   run: FUZZ_TARGET=config ./fuzz --seeds DIR      writes the seeds of a target
        FUZZ_TARGET=config ./fuzz DIR              FUZZ_DIR: where the layouts are made, default /dev/shm */
#define _GNU_SOURCE
#define HLSNAP_IMPLEMENTATION
#include <setjmp.h>
#include <stdint.h>
#include <string.h>
#include <sys/types.h>

/* A hostile guest changes its mailbox after each look that the host takes at it. */
static void *fuzz_memcpy(void *to, const void *from, size_t n);
/* The guest's runtime natively: its identity page and its ways out are the harness's. */
static const void *fuzz_identity_page;
static void fuzz_out_return(void);
static void fuzz_out_call(void);
#define hlsnap__rt_identity(nothing) FUZZ_IDENTITY_##nothing
#define FUZZ_IDENTITY_void __attribute__((unused)) fuzz_no_identity(void)
#define FUZZ_IDENTITY_ ((const hlsnap_abi_identity *)fuzz_identity_page)
#define hlsnap__rt_out_return(nothing) FUZZ_RETURN_##nothing
#define FUZZ_RETURN_void __attribute__((unused)) fuzz_no_return(void)
#define FUZZ_RETURN_ fuzz_out_return()
#define hlsnap__rt_out_call(nothing) FUZZ_CALL_##nothing
#define FUZZ_CALL_void __attribute__((unused)) fuzz_no_call(void)
#define FUZZ_CALL_ fuzz_out_call()
#define memcpy(to, from, n) fuzz_memcpy(to, from, n)
#include "fake.h"
#undef memcpy
/* A kernel without openat2, when an input says so. */
static bool fuzz_no_openat2;
#define syscall(number, ...) (fuzz_no_openat2 && (number) == 437 ? (errno = ENOSYS, -1l) : syscall(number, __VA_ARGS__))
#define nanosleep(time, left) ((void)(time), (void)(left)) /* nobody replaces an index.json here */
#include "hlsnap_oci.h"
#undef syscall
#undef nanosleep
#include "guest_fake.h"
#include "test.h"
#include "oci_make.h"
#include <dirent.h>
#define QUIET __attribute__((no_sanitize("coverage"))) /* what is reached there is not what is looked for */
#pragma clang attribute push(QUIET, apply_to = function)
#include "fuzz_mutate.h"
#pragma clang attribute pop

/* ---- what must hold ---- */

static void bad(const char *what) {
    fprintf(stderr, "fuzz: %s: %s\n", what, err.msg);
    abort();
}
#define MUST(c) ((c) ? (void)0 : bad(#c))

#define R(name) (1ull << HLSNAP_##name)
#define MAY_JSON (R(OK) | R(ERR_JSON) | R(ERR_LIMIT))
#define MAY_LIST (MAY_JSON | R(ERR_LAYOUT) | R(ERR_INDEX) | R(ERR_FILE))
#define MAY_FIND (MAY_LIST | R(ERR_NOT_FOUND) | R(ERR_AMBIGUOUS) | R(ERR_MANIFEST) | R(ERR_MEDIA_TYPE) | R(ERR_SIZE) | R(ERR_DIGEST) | R(ERR_VERSION))
#define MAY_INFO (MAY_FIND | R(ERR_CONFIG) | R(ERR_ARCH))
#define MAY_LOAD (MAY_INFO | R(ERR_CPU))

/* Characters that no text for people may have: controls, line ends, what shows as nothing, what turns the direction of writing. */
static bool forges(uint32_t c) {
    static const uint32_t ranges[][2] = {{0, 31}, {0x7f, 0x9f}, {0xad, 0xad}, {0x61c, 0x61c}, {0x180e, 0x180e}, {0x200b, 0x200f}, {0x2028, 0x202e},
        {0x2060, 0x206f}, {0xd800, 0xdfff}, {0xfdd0, 0xfdef}, {0xfeff, 0xfeff}, {0xfff9, 0xfffb}, {0xfffe, 0xffff}, {0xe0000, 0xe0fff}, {0x110000, UINT32_MAX}};
    for (size_t i = 0; i < HLSNAP_COUNT(ranges); i++)
        if (c >= ranges[i][0] && c <= ranges[i][1]) return true;
    return false;
}

/* UTF-8, and none of these. */
static bool readable(const char *text, size_t size, bool tabs) {
    const uint8_t *p = (const uint8_t *)text, *end = p + size;
    static const uint32_t least[] = {0, 0x80, 0x800, 0x10000};
    while (p < end) {
        const uint32_t more = *p < 0x80 ? 0 : *p < 0xe0 ? 1 : *p < 0xf0 ? 2 : 3;
        uint32_t i, c = more ? *p & (0x3fu >> more) : *p;
        if (*p >= 0x80 && (*p < 0xc2 || *p >= 0xf5 || more >= (uint32_t)(end - p))) return false;
        for (i = 1; i <= more; i++) {
            if ((p[i] & 0xc0) != 0x80) return false;
            c = c << 6 | (p[i] & 0x3fu);
        }
        if (c < least[more] || (forges(c) && !(tabs && c == '\t'))) return false;
        p += more + 1;
    }
    return true;
}

/* The result is one of the documented ones, and a failure says in print what it is. */
static hlsnap_result outcome(hlsnap_result r, uint64_t may) {
    const size_t n = strnlen(err.msg, sizeof(err.msg));
    if ((uint32_t)r > 63 || !(may >> r & 1)) fprintf(stderr, "fuzz: %s\n", hlsnap_result_name(r));
    MUST((uint32_t)r <= 63 && may >> r & 1);
    if (!r) return r;
    MUST(err.code == r && n > 0 && n < sizeof(err.msg));
    MUST(readable(err.msg, n, false));
    return r;
}

/* What an input may not leave behind. */
static struct { int fd; long live, maps; } before;
static int lowest_fd(void) {
    const int fd = fcntl(2, F_DUPFD, 3);
    close(fd);
    return fd;
}
static void begin(void) {
    before.fd = lowest_fd();
    before.live = inject.live;
    before.maps = inject.maps;
    memset(&err, 0, sizeof(err));
}
static void end(void) {
    MUST(lowest_fd() == before.fd);
    MUST(inject.live == before.live);
    MUST(inject.maps == before.maps);
}

QUIET static uint64_t hash_of(const void *p, size_t n) { return hlsnap__mix(0xcbf29ce484222325ull, p, n) * 0x9e3779b97f4a7c15ull >> 20; }

typedef struct input { const uint8_t *p; size_t left; } input;
static uint64_t take(input *in, size_t n) { /* little-endian; zero where the input ends */
    uint64_t v = 0;
    n = n < in->left ? n : in->left;
    memcpy(&v, in->p, n);
    in->p += n;
    in->left -= n;
    return v;
}
static const uint8_t *take_bytes(input *in, size_t *n) {
    const uint8_t *p = in->p;
    *n = *n < in->left ? *n : in->left;
    in->p += *n;
    in->left -= *n;
    return p;
}

/* ---- the layout that inputs go into: three memory layers, configs and manifests of the first one, two, three of them ---- */

#define LAYERS 3u
static const uint32_t layer_pages[LAYERS] = {17, 3, 1};
enum { DOC_MEMORY, DOC_CHUNKS = LAYERS, DOC_CONFIG = 2 * LAYERS, DOC_MANIFEST = 3 * LAYERS, DOC_NESTED = 4 * LAYERS, DOC_FOREIGN, DOC_INDEX,
       DOC_MARKER, NUM_DOCS };

typedef struct doc { char digest[72]; uint8_t *data; size_t size; } doc;
static doc docs[NUM_DOCS];
static char top[200], dir_path[220], pristine_path[220];
static int top_fd, pristine, root = -1, root_blobs; /* directories: all, the good layout's files, the layout in use, its blobs/sha256 */
static const hlsnap__sha256_ways *sha;

static void sum_text(const void *p, size_t n, char digest[72]) {
    uint8_t sum[32];
    hlsnap__sha256_of(sha->one, p, n, sum);
    hlsnap__sha256_text(sum, digest);
}

static void doc_set(uint32_t number, const void *data, size_t size) {
    doc *d = &docs[number];
    free(d->data);
    d->data = (uint8_t *)malloc(size + 1);
    memcpy(d->data, data, size);
    d->size = size;
    sum_text(data, size, d->digest);
}

static const struct name { char name; uint32_t doc, num; } names[] = {{'m', DOC_MEMORY, LAYERS}, {'k', DOC_CHUNKS, LAYERS},
    {'c', DOC_CONFIG, LAYERS}, {'a', DOC_MANIFEST, LAYERS}, {'n', DOC_NESTED, 1}, {'f', DOC_FOREIGN, 1}};

/* The document that the three bytes at p stand for, or NULL. */
QUIET static const doc *named(const uint8_t *p, size_t left) {
    size_t k;
    for (k = 0; left >= 3 && *p == '$' && k < HLSNAP_COUNT(names); k++)
        if ((p[1] | 0x20) == names[k].name && p[2] >= '0' && p[2] <= '9') return &docs[names[k].doc + (uint32_t)(p[2] - '0') % names[k].num];
    return NULL;
}

/* Replaces $m0 and its kin: lower case is a digest, upper case a size. */
QUIET static uint8_t *expand(const uint8_t *p, size_t size, size_t *out) {
    static uint8_t text[3u << 20];
    size_t i, n = 0;
    for (i = 0; i < size && n + 80 < sizeof(text);) {
        const doc *d = named(p + i, size - i);
        if (d && p[i + 1] & 0x20) n += (size_t)sprintf((char *)text + n, "%s", d->digest);
        else if (d) n += (size_t)sprintf((char *)text + n, "%zu", d->size);
        else text[n++] = p[i];
        i += d ? 3 : 1;
    }
    *out = n;
    return text;
}

/* The reverse, for seeds: digests, and the size that follows one. */
static size_t collapse(const uint8_t *p, size_t size, uint8_t *to) {
    char number[40];
    size_t i, k, n = 0;
    uint32_t j;
    for (i = 0; i < size;) {
        size_t from = i;
        for (k = 0; k < HLSNAP_COUNT(names) && i == from; k++)
            for (j = 0; j < names[k].num && i == from; j++) {
                const doc *d = &docs[names[k].doc + j];
                size_t len = (size_t)snprintf(number, sizeof(number), "\",\"size\":%zu", d->size);
                if (size - i < 71 || memcmp(p + i, d->digest, 71) != 0) continue;
                n += (size_t)sprintf((char *)to + n, "$%c%u", names[k].name, j);
                i += 71;
                if (size - i <= len || memcmp(p + i, number, len) != 0) continue;
                n += (size_t)sprintf((char *)to + n, "\",\"size\":$%c%u", names[k].name - 32, j);
                i += len;
            }
        if (i == from) to[n++] = p[i++];
    }
    return n;
}

static void file_write(int at, const char *path, const void *data, size_t n) {
    const int fd = openat(at, path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    MUST(fd >= 0 && write(fd, data, n) == (ssize_t)n);
    close(fd);
}

static void remove_below(int at, const char *name) { /* whatever it is, and what is in it */
    const struct dirent *e;
    DIR *d;
    if (unlinkat(at, name, 0) == 0 || errno == ENOENT) return;
    d = fdopendir(openat(at, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
    while (d && (e = readdir(d)) != NULL)
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0) remove_below(dirfd(d), e->d_name);
    if (d) closedir(d);
    unlinkat(at, name, AT_REMOVEDIR);
}

/* Makes the layout in use anew, all its files links to the good one's. */
static void layout_reset(void) {
    uint32_t i;
    if (root >= 0) close(root), close(root_blobs);
    remove_below(top_fd, "layout");
    MUST(mkdirat(top_fd, "layout", 0700) == 0);
    root = openat(top_fd, "layout", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    MUST(mkdirat(root, "blobs", 0700) == 0 && mkdirat(root, "blobs/sha256", 0700) == 0);
    root_blobs = openat(root, "blobs/sha256", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    for (i = 0; i < DOC_INDEX; i++) linkat(pristine, docs[i].digest + 7, root_blobs, docs[i].digest + 7, 0); /* some are equal */
    MUST(linkat(pristine, "index.json", root, "index.json", 0) == 0 && linkat(pristine, "oci-layout", root, "oci-layout", 0) == 0);
}

/* A file of the layout that changes with each input: written in place, moved to its new name. */
typedef struct slot { int fd; char name[72]; } slot;
static void slot_set(slot *s, int at, const char *name, const void *data, size_t n) {
    if (!s->name[0]) {
        unlinkat(at, name, 0); /* a link to the good one */
        s->fd = openat(at, name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
        MUST(s->fd >= 0);
    } else if (strcmp(s->name, name) != 0 && renameat(at, s->name, at, name) != 0) bad("rename");
    snprintf(s->name, sizeof(s->name), "%s", name);
    MUST(ftruncate(s->fd, 0) == 0 && pwrite(s->fd, data, n, 0) == (ssize_t)n);
}
static void blob_set(slot *s, const void *data, size_t n, char digest[72]) {
    uint32_t i;
    sum_text(data, n, digest);
    for (i = 0; i < DOC_INDEX; i++)
        if (strcmp(docs[i].digest, digest) == 0) return; /* is there */
    slot_set(s, root_blobs, digest + 7, data, n);
}

#define MANIFEST_TYPE "application/vnd.oci.image.manifest.v1+json"
#define INDEX_ENTRY "{\"mediaType\":\"" MANIFEST_TYPE "\",\"digest\":\"%s\",\"size\":%zu,\"annotations\":{\"" HLSNAP__OCI_REF_NAME "\":\"%s\"}}"
#define INDEX_HEAD "{\"schemaVersion\":2,\"manifests\":["

/* index.json of one tag, v1. */
static void index_set(slot *s, const char *digest, size_t size) {
    char text[1000];
    const int n = snprintf(text, sizeof(text), INDEX_HEAD INDEX_ENTRY "]}", digest, size, "v1");
    slot_set(s, root, "index.json", text, (size_t)n);
}

/* The manifest of a config over the first `num` layers. */
static size_t manifest_text(char *to, size_t cap, const char *config, size_t size, uint32_t num) {
    size_t n = (size_t)snprintf(to, cap, "{\"schemaVersion\":2,\"config\":{\"mediaType\":\"" HLSNAP__OCI_CONFIG_TYPE
                                "\",\"digest\":\"%s\",\"size\":%zu},\"layers\":[", config, size);
    uint32_t i;
    for (i = 0; i < num; i++)
        n += (size_t)snprintf(to + n, cap - n, "%s{\"mediaType\":\"" HLSNAP__OCI_MEMORY_TYPE "\",\"digest\":\"%s\",\"size\":%zu},"
                              "{\"mediaType\":\"" HLSNAP__OCI_CHUNKS_TYPE "\",\"digest\":\"%s\",\"size\":%zu}", i ? "," : "",
                              docs[DOC_MEMORY + i].digest, docs[DOC_MEMORY + i].size, docs[DOC_CHUNKS + i].digest, docs[DOC_CHUNKS + i].size);
    return n + (size_t)snprintf(to + n, cap - n, "]}");
}

/* ---- the good layout ---- */

static void docs_layers(void) {
    static uint8_t data[17 * P], sums[2 * 32];
    uint64_t seed = 5;
    uint32_t i;
    size_t k, size;
    for (i = 0; i < LAYERS; i++) {
        size = layer_pages[i] * P;
        for (k = 0; k < size; k += 8) hlsnap__put64(data + k, k % P < 512 ? lcg(&seed) : k / P + i);
        if (i == 0) memset(data + 10 * P, 0, P);
        doc_set(DOC_MEMORY + i, data, size);
        hlsnap__sha256_chunks(sha, data, size, HLSNAP__OCI_CHUNK, sums);
        doc_set(DOC_CHUNKS + i, sums, (size_t)hlsnap__oci_chunks_size(size));
    }
}

/* The config of a guest over the first `num` layers, by the library's own writer. */
static void docs_config(uint32_t num) {
    static const hlsnap__extent one[] = {{0, 4, 0, 0}, {20, 9, 0, 4}}, two[] = {{0, 4, 0, 0}, {4, 2, 1, 0}, {20, 9, 0, 4}, {276, 1, 1, 2}},
                                three[] = {{0, 4, 0, 0}, {5, 1, 2, 0}, {6, 3, 1, 0}, {100, 13, 0, 4}};
    static const hlsnap__extent *const of[] = {one, two, three};
    static const uint32_t nums[] = {2, 4, 4};
    char text[6000];
    hlsnap__layer *layers[LAYERS];
    hlsnap__oci_layer rows[LAYERS];
    hlsnap__text t = {NULL, 0, 0};
    hlsnap_snapshot *s;
    hlsnap__guest *g = guest_new();
    uint32_t i;
    for (i = 0; i < num; i++) {
        layers[i] = layer_new(layer_pages[i], i, 99);
        rows[i].memory = docs[DOC_MEMORY + i].digest;
        rows[i].chunks = docs[DOC_CHUNKS + i].digest;
        rows[i].pages = layer_pages[i];
    }
    MUST(hlsnap__snapshot_create(g, 7, layers, num, of[num - 1], nums[num - 1], &s, &err) == HLSNAP_OK);
    MUST(hlsnap__text_start(&t, 1 << 20, &err) == HLSNAP_OK);
    hlsnap__oci_config_write(&t, s, rows, num, of[num - 1], nums[num - 1]);
    doc_set(DOC_CONFIG + num - 1, t.at, t.size);
    doc_set(DOC_MANIFEST + num - 1, text, manifest_text(text, sizeof(text), docs[DOC_CONFIG + num - 1].digest, t.size, num));
    hlsnap__free(t.at);
    hlsnap_snapshot_release(s);
    hlsnap__guest_release(g);
    for (i = 0; i < num; i++) hlsnap__layer_release(layers[i]);
}

static const char index_template[] = "{\"schemaVersion\":2,\"mediaType\":\"" HLSNAP__OCI_INDEX_TYPE "\",\"manifests\":["
    "{\"mediaType\":\"" MANIFEST_TYPE "\",\"digest\":\"$a1\",\"size\":$A1,\"annotations\":{\"" HLSNAP__OCI_REF_NAME "\":\"v1\",\"k\":\"\\u00e4\"},"
    "\"artifactType\":\"" HLSNAP__OCI_ARTIFACT_TYPE "\"},"
    "{\"mediaType\":\"" MANIFEST_TYPE "\",\"digest\":\"$a0\",\"size\":$A0},"
    "{\"mediaType\":\"" MANIFEST_TYPE "\",\"digest\":\"$a0\",\"size\":$A0,\"annotations\":{\"" HLSNAP__OCI_REF_NAME "\":\"v0\"}},"
    "{\"mediaType\":\"" MANIFEST_TYPE "\",\"digest\":\"$f0\",\"size\":$F0,\"annotations\":{\"" HLSNAP__OCI_REF_NAME "\":\"foreign\"}},"
    "{\"mediaType\":\"" HLSNAP__OCI_INDEX_TYPE "\",\"digest\":\"$n0\",\"size\":$N0},"
    "{\"mediaType\":\"a/b+json\",\"digest\":\"$c0\",\"size\":$C0,\"urls\":[]},{\"mediaType\":\"x/y\",\"digest\":\"sha512:00ff\",\"size\":0}],"
    "\"annotations\":{\"a\":\"b\"}}";

static void doc_expanded(uint32_t number, const char *template) {
    size_t n;
    const uint8_t *text = expand((const uint8_t *)template, strlen(template), &n);
    doc_set(number, text, n);
}

static void layout_make(void) {
    uint32_t i;
    docs_layers();
    for (i = 1; i <= LAYERS; i++) docs_config(i);
    doc_expanded(DOC_FOREIGN, "{\"schemaVersion\":2,\"config\":{\"mediaType\":\"application/vnd.oci.image.config.v1+json\",\"digest\":\"$c0\","
                              "\"size\":$C0},\"layers\":[{\"mediaType\":\"application/vnd.oci.image.layer.v1.tar\",\"digest\":\"$m0\",\"size\":$M0}]}");
    doc_expanded(DOC_NESTED, "{\"schemaVersion\":2,\"mediaType\":\"" HLSNAP__OCI_INDEX_TYPE "\",\"manifests\":["
                             "{\"mediaType\":\"" MANIFEST_TYPE "\",\"digest\":\"$a2\",\"size\":$A2}]}");
    doc_expanded(DOC_INDEX, index_template);
    doc_expanded(DOC_MARKER, "{\"imageLayoutVersion\":\"1.0.0\"}");
    snprintf(top, sizeof(top), "%s/hlsnap-fuzz-XXXXXX", getenv("FUZZ_DIR") ? getenv("FUZZ_DIR") : "/dev/shm");
    MUST(mkdtemp(top) != NULL);
    snprintf(dir_path, sizeof(dir_path), "%s/layout", top);
    snprintf(pristine_path, sizeof(pristine_path), "%s/again", top);
    top_fd = open(top, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    MUST(mkdirat(top_fd, "good", 0700) == 0);
    pristine = openat(top_fd, "good", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    for (i = 0; i < DOC_INDEX; i++) file_write(pristine, docs[i].digest + 7, docs[i].data, docs[i].size);
    file_write(pristine, "index.json", docs[DOC_INDEX].data, docs[DOC_INDEX].size);
    file_write(pristine, "oci-layout", docs[DOC_MARKER].data, docs[DOC_MARKER].size);
    layout_reset();
}

static void layout_remove(void) {
    if (top[0]) remove_below(AT_FDCWD, top);
}

/* ---- a snapshot that was loaded ---- */

#define MAP_AREA 0x7f0000000000ull
#define MAP_PAGE(s) (((s)->guest->layout.pages + 1023ull) / 512 * 512) /* number of the area's first page */

/* A page that extents show. Of maps of the host's nobody else is shown any. */
static bool page_read(const hlsnap_snapshot *s, uint64_t page, uint8_t to[P]) {
    const uint64_t gva = page < s->guest->layout.pages ? s->guest->layout.base + page * P : MAP_AREA + (page - MAP_PAGE(s)) * P;
    return hlsnap__page_sparse(&s->guest->layout, s->maps, s->num_maps, page) ? hlsnap_snapshot_read(s, gva, to, P, &err) == HLSNAP_OK
                                                                              : hlsnap__oci_read_pages(s, page, 1, to, &err) == HLSNAP_OK;
}

static bool name_legal(const char *name) {
    static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_";
    const size_t n = strnlen(name, HLSNAP_MAX_NAME + 1);
    return n >= 1 && n <= 63 && strchr(letters, name[0]) && strspn(name + 1, letters) <= n && strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_0123456789.:$-") == n;
}

/* The map that all of an extent lies in, or NULL. */
static const hlsnap__map *map_of_extent(const hlsnap_snapshot *s, const hlsnap__extent *e) {
    uint32_t i;
    for (i = 0; i < s->num_maps; i++) {
        const hlsnap__map *m = &s->maps[i];
        const uint64_t from = (m->gva - MAP_AREA) / P + MAP_PAGE(s), pages = (m->size + P - 1) / P;
        if (e->page >= from && (uint64_t)e->page + e->pages <= from + pages) return m;
    }
    return NULL;
}

/* What docs/snapshot-format.md says of maps, and of extents in them. */
static void maps_must_hold(const hlsnap_snapshot *s) {
    const uint64_t window_end = s->guest->layout.base + s->guest->layout.pages * P;
    uint64_t behind = MAP_AREA;
    uint32_t i, k;
    MUST(s->num_maps <= 16 && (!s->num_maps || window_end <= MAP_AREA));
    for (i = 0; i < s->num_maps; i++) {
        const hlsnap__map *m = &s->maps[i];
        MUST(m->mode <= HLSNAP_MAP_SHARED && (!m->capture || (m->mode != HLSNAP_MAP_SHARED && !m->optional)));
        MUST(m->size >= 1 && m->size <= (m->capture ? 1ull << 34 : 1ull << 36));
        MUST(m->gva % (2u << 20) == 0 && m->gva >= behind && m->gva < 0x7f1000000000ull && m->size <= 0x7f1000000000ull - m->gva);
        behind = m->gva + (m->size + P - 1) / P * P + P;
        MUST(name_legal(m->name));
        for (k = 0; k < i; k++) MUST(strcmp(m->name, s->maps[k].name) != 0);
        MUST(!m->digest[0] || (strncmp(m->digest, "sha256:", 7) == 0 && strnlen(m->digest, 72) == 71 && strspn(m->digest + 7, "0123456789abcdef") == 64));
        MUST(!m->layer || (m->capture && m->layer->pages == (m->size + P - 1) / P));
    }
    for (i = 0; i < s->num_extents; i++) {
        const hlsnap__map *m = map_of_extent(s, &s->extents[i]);
        MUST(s->extents[i].page < s->guest->layout.pages ? !m : m && (m->capture || m->mode == HLSNAP_MAP_PRIVATE));
    }
}

/* Bytes that a page must have: those of its layer, or zeros. */
static void page_must_be(const hlsnap_snapshot *s, uint64_t page, const hlsnap__extent *e) {
    static const uint8_t zeros[P];
    uint8_t got[P];
    const uint8_t *want = zeros;
    MUST(page_read(s, page, got));
    if (e && docs[0].data && s->num_layers <= LAYERS && s->layers[e->layer]->pages == layer_pages[e->layer])
        want = docs[DOC_MEMORY + e->layer].data + (e->layer_page + (page - e->page)) * P;
    else if (e) return;
    MUST(memcmp(got, want, P) == 0);
}

/* Everything about it that a file decides. */
static void snapshot_must_hold(const hlsnap_snapshot *s) {
    uint64_t pages[HLSNAP__MAX_LAYERS];
    hlsnap_snapshot_info info;
    hlsnap_function f;
    uint32_t i;
    MUST(s->num_layers <= HLSNAP__MAX_LAYERS);
    for (i = 0; i < s->num_layers; i++) pages[i] = s->layers[i]->pages;
    maps_must_hold(s);
    MUST(!hlsnap__guest_check(s->guest, HLSNAP_ERR_CONFIG, &err));
    MUST(!hlsnap__extents_check(&s->guest->layout, s->maps, s->num_maps, pages, s->num_layers, s->extents, s->num_extents, HLSNAP_ERR_CONFIG, &err));
    for (i = 0; i < s->num_extents; i++) {
        const hlsnap__extent *e = &s->extents[i];
        MUST((uint64_t)e->layer_page + e->pages <= pages[e->layer]);
        if (i >= 40 && i + 4 < s->num_extents) continue;
        page_must_be(s, e->page, e);
        page_must_be(s, e->page + (uint64_t)e->pages - 1, e);
    }
    for (i = 0; i < s->guest->layout.num_regions; i++) {
        const hlsnap__region *r = &s->guest->layout.regions[i];
        const uint64_t first = hlsnap__region_page(&s->guest->layout, r);
        if (!hlsnap__extent_at(s, first)) page_must_be(s, first, NULL);
        if (!hlsnap__extent_at(s, first + r->pages - 1)) page_must_be(s, first + r->pages - 1, NULL);
        MUST(hlsnap_snapshot_read(s, r->gva + r->pages * P - 1, pages, 2, &err) != HLSNAP_OK ||
             hlsnap__layout_at(&s->guest->layout, r->gva + r->pages * P));
    }
    hlsnap_snapshot_get_info(s, &info);
    MUST(memchr(info.guest_name, 0, sizeof(info.guest_name)) && memchr(info.build_id, 0, sizeof(info.build_id)) &&
         memchr(info.cpu_vendor, 0, sizeof(info.cpu_vendor)) && memchr(info.hypervisor, 0, sizeof(info.hypervisor)));
    for (i = 0; hlsnap_snapshot_export(s, i, &f) || hlsnap_snapshot_import(s, i, &f); i++)
        MUST(hlsnap__name_ok(f.name, strlen(f.name)) && strlen(f.signature) >= 5);
}

/* Saved and loaded again it is the same, and its bytes on disk are a function of it. */
static void saves_again(hlsnap_snapshot *s) {
    hlsnap_oci_digest first, second;
    hlsnap_oci_desc desc = HLSNAP_ZERO;
    hlsnap_snapshot *t = NULL;
    uint32_t i;
    desc.any_cpu = true;
    if (s->guest->features & HLSNAP__CPU_UNKNOWN) return;
    if (outcome(hlsnap_oci_save(pristine_path, "a", s, NULL, &first, &err), R(OK) | R(ERR_LIMIT))) return;
    MUST(hlsnap_oci_load(pristine_path, "a", &desc, &t, NULL, &err) == HLSNAP_OK);
    MUST(memcmp(&s->guest->layout, &t->guest->layout, sizeof(s->guest->layout)) == 0);
    MUST(s->guest->id == t->guest->id && s->generation == t->generation && s->guest->features == t->guest->features);
    MUST(s->num_maps == t->num_maps);
    for (i = 0; i < s->num_maps; i++) /* all but the layer */
        MUST(memcmp(&s->maps[i], &t->maps[i], offsetof(hlsnap__map, layer)) == 0 && !s->maps[i].layer == !t->maps[i].layer);
    for (i = 0; i < s->num_extents && i < 64; i++) {
        uint8_t a[P], b[P];
        const uint64_t page = s->extents[i].page + (uint64_t)s->extents[i].pages / 2;
        MUST(page_read(s, page, a) && page_read(t, page, b));
        MUST(memcmp(a, b, P) == 0);
    }
    MUST(hlsnap_oci_save(pristine_path, "b", t, NULL, &second, &err) == HLSNAP_OK);
    MUST(strcmp(first.text, second.text) == 0);
    hlsnap_snapshot_release(t);
    MUST(hlsnap_oci_fsck(pristine_path, false, &err) == HLSNAP_OK);
    remove_below(top_fd, "again");
}

/* What a snapshot demands, as files of zeros; every second one of those that it can do without. Returns how many. */
static uint32_t maps_give(const hlsnap_snapshot *s, hlsnap_map *give, int *fds) {
    static char paths[HLSNAP_MAX_MAPS][32];
    uint32_t i, num = 0;
    for (i = 0; i < s->num_maps; i++) {
        MUST(hlsnap_snapshot_map(s, i, &give[num]) && strcmp(give[num].name, s->maps[i].name) == 0);
        if (give[num].capture || (give[num].optional && i % 2)) continue;
        fds[num] = memfd_create("fuzz", MFD_CLOEXEC);
        MUST(fds[num] >= 0 && ftruncate(fds[num], (off_t)give[num].size) == 0);
        snprintf(paths[num], sizeof(paths[0]), "/proc/self/fd/%d", fds[num]);
        give[num].path = paths[num];
        give[num].size = give[num].gva = 0;
        num++;
    }
    return num;
}

/* Makes of a map that was demanded another one; whether it will not do. */
static bool map_alter(hlsnap_map *m, uint64_t size, uint32_t how) {
    const char *digest = m->digest;
    switch (how % 4) {
    case 0: m->name = "another"; return !m->optional;
    case 1: m->mode = m->mode == HLSNAP_MAP_READ ? HLSNAP_MAP_PRIVATE : HLSNAP_MAP_READ; return true;
    case 2: m->size = size > P ? P : 0; return size > P;
    default: m->digest = "sha256:ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff"; return digest && strcmp(digest, m->digest) != 0;
    }
}

/* It does not start with another map than the one that it demands. */
static void starts_with_its_maps_only(hlsnap_snapshot *s, const hlsnap_sandbox_desc *desc, hlsnap_map *give, uint32_t num) {
    hlsnap_sandbox *sb = NULL;
    uint32_t i = s->num_extents / 4 % num;
    const hlsnap__map *m = hlsnap__map_find(s->maps, s->num_maps, give[i].name);
    const bool wrong = map_alter(&give[i], m->size, s->num_extents);
    const hlsnap_result r = hlsnap_sandbox_create_from(s, desc, &sb, &err);
    MUST(!sb == (r != HLSNAP_OK) && !(wrong && !r));
    hlsnap_sandbox_destroy(sb);
}

/* A sandbox starts from it, on no machine, and its memory is the snapshot's. */
static void starts(hlsnap_snapshot *s, uint64_t may) {
    static const hlsnap_function host[] = {{"clock", "u64()", g_nop, NULL}, {"twice", "str(str)", g_echo, NULL}};
    const uint64_t asks = s->guest->syscall || s->guest->cpu ? R(ERR_UNSUPPORTED) : R(OK); /* of more than the fake has */
    hlsnap_sandbox_desc d = HLSNAP_ZERO;
    hlsnap_sandbox *sb = NULL;
    hlsnap_map give[HLSNAP_MAX_MAPS + 1];
    int fds[HLSNAP_MAX_MAPS + 1];
    const uint32_t num = maps_give(s, give, fds);
    hlsnap_result r;
    uint32_t i;
    d.hypervisor = &hv.ops;
    d.functions = host;
    d.num_functions = 2;
    d.maps = num ? give : NULL;
    d.num_maps = num;
    r = outcome(hlsnap_sandbox_create_from(s, &d, &sb, &err), asks | R(ERR_CONTRACT) | R(ERR_CPU) | R(ERR_MEMORY) | may);
    MUST(!sb == (r != HLSNAP_OK));
    for (i = 0; sb && !may && i < s->num_extents && i < 20; i++) {
        uint8_t a[P];
        const hlsnap__map *m = map_of_extent(s, &s->extents[i]);
        if (m && !hlsnap__mapped_find(&sb->memory, m->name)) continue;
        MUST(page_read(s, s->extents[i].page, a));
        MUST(memcmp(a, hlsnap__memory_at(&sb->memory, s->extents[i].page), P) == 0);
    }
    for (i = 0; sb && i < s->num_maps; i++) {
        const hlsnap__mapped *x = hlsnap__mapped_find(&sb->memory, s->maps[i].name);
        MUST(x ? x->map.gva == s->maps[i].gva && x->map.size == s->maps[i].size : s->maps[i].optional);
    }
    hlsnap_sandbox_destroy(sb);
    if (num && !may) starts_with_its_maps_only(s, &d, give, num);
    for (i = 0; i < num; i++) close(fds[i]);
    MUST(hv.bad == 0 && hv.shells == 0);
}

/* Loads ref with options that follow from `how`, and looks at what comes of it. */
static hlsnap_result load_and_look(const char *ref, uint64_t how, uint64_t may) {
    hlsnap_oci_desc desc = HLSNAP_ZERO;
    hlsnap_oci_digest digest;
    hlsnap_snapshot *s = (hlsnap_snapshot *)(void *)&desc;
    hlsnap_result r;
    desc.any_cpu = how % 4 == 1;
    desc.disable_verify = how / 4 % 16 == 1;
    desc.guard = (hlsnap_oci_guard)(how / 64 % 5);
    desc.verify_later = how / 512 % 8 == 1;
    desc.threads = how / 4096 % 8 == 1 ? 2 : 0;
    r = outcome(hlsnap_oci_load(dir_path, ref, &desc, &s, &digest, &err), may);
    MUST(!s == (r != HLSNAP_OK));
    if (r) return r;
    MUST(hlsnap__sha256_text_ok(digest.text));
    if (!desc.disable_verify && !hlsnap__snapshot_check(s, true, &err)) snapshot_must_hold(s);
    if (how / 32768 % 16 == 0 && !desc.disable_verify && !desc.verify_later) saves_again(s);
    if (how / 524288 % 8 == 0) starts(s, desc.verify_later ? R(ERR_DIGEST) : 0);
    hlsnap_snapshot_release(s);
    return HLSNAP_OK;
}

/* ---- targets: documents of a layout ---- */

/* The scanner alone, on bytes that end where they end; what it takes is what cJSON takes. True: an object. */
static bool scanned(const uint8_t *text, size_t size, hlsnap__json *d) {
    memset(d, 0, sizeof(*d));
    d->text = (char *)hlsnap__alloc(1, size + 1, NULL);
    memcpy(d->text, text, size);
    d->size = size;
    d->code = HLSNAP_ERR_CONFIG;
    snprintf(d->file, sizeof(d->file), "a document");
    return !outcome(hlsnap__json_parse(d, &err), MAY_JSON | R(ERR_CONFIG));
}

static void fuzz_layout(const uint8_t *p, size_t size) {
    static slot marker;
    hlsnap__json d;
    scanned(p, size, &d);
    hlsnap__json_close(&d);
    slot_set(&marker, root, "oci-layout", p, size);
    before.fd = lowest_fd();
    load_and_look("v1", 0x7ffff, R(OK) | R(ERR_JSON) | R(ERR_LAYOUT) | R(ERR_LIMIT));
}

static uint32_t visits;
static bool visit(const char *tag, const hlsnap_oci_digest *digest, uint64_t bytes, void *user) {
    (void)bytes, (void)user;
    MUST(memchr(digest->text, 0, sizeof(digest->text)) && strlen(tag) < 1u << 20);
    return ++visits < 5;
}
static bool visit_info(const char *tag, hlsnap_result r, const hlsnap_oci_info *info, void *user) {
    (void)user;
    MUST((uint32_t)r <= 63 && MAY_INFO >> r & 1);
    MUST(hlsnap__sha256_text_ok(info->digest.text) && strlen(tag) < 1u << 20 && info->own_bytes <= info->bytes && (r ? !info->layers : info->layers));
    return ++visits < 5;
}
static bool visit_text(const char *key, const char *value, void *user) {
    (void)user;
    MUST(strlen(key) + strlen(value) < 1u << 20);
    return ++visits < 5;
}
static bool visit_layer(const hlsnap_oci_layer *layer, void *user) {
    (void)user;
    MUST(hlsnap__sha256_text_ok(layer->memory.text) && hlsnap__sha256_text_ok(layer->chunks.text) && layer->pages);
    return ++visits < 5;
}

/* What was read of an index is what its JSON says. */
static void index_agrees(const hlsnap__oci_index *index, const cJSON *root_value) {
    const cJSON *e = hlsnap__json_get(root_value, "manifests") ? hlsnap__json_get(root_value, "manifests")->child : NULL;
    uint32_t i;
    for (i = 0; i < index->num; i++, e = e->next) {
        const hlsnap__oci_entry *mine = &index->entries[i];
        const cJSON *tag = hlsnap__json_get(hlsnap__json_get(e, "annotations"), HLSNAP__OCI_REF_NAME), *type = hlsnap__json_get(e, "mediaType");
        MUST(strcmp(mine->digest, hlsnap__json_get(e, "digest")->valuestring) == 0 && (double)mine->size == hlsnap__json_get(e, "size")->valuedouble);
        MUST(cJSON_IsString(type) ? strcmp(mine->type, type->valuestring) == 0 : !mine->type[0]);
        MUST(cJSON_IsString(tag) ? mine->tag && strcmp(mine->tag, tag->valuestring) == 0 : !mine->tag);
    }
    MUST(!e);
}

/* An index that was edited: it is JSON, what had the tag has it no longer, all else stands as it stood. */
static void index_edited(const hlsnap__oci_index *old, const cJSON *old_root, uint64_t how) {
    static const char *const tags[] = {"v1", "v0", "new", "foreign"};
    hlsnap__oci_edit edit = {tags[how % 4], how / 4 % 2 ? docs[DOC_MANIFEST + how / 8 % 3].digest : NULL, docs[DOC_MANIFEST + how / 8 % 3].size, NULL, 0};
    uint8_t *drop = (uint8_t *)calloc(1, (size_t)old->num + 1);
    hlsnap__text t = {NULL, 0, 0};
    hlsnap__oci_index edited;
    hlsnap__json d;
    hlsnap_result r;
    uint32_t tagged = 0, i;
    drop[0] = how / 32 % 2 ? (how / 128 % 2 ? HLSNAP__OCI_TAG_GOES : 1) : 0;
    if (how / 64 % 2) edit.drop = drop;
    if (!edit.digest) edit.tag = NULL; /* nothing is moved */
    r = outcome(hlsnap__oci_index_make(&t, old, &edit, &err), R(OK) | R(ERR_AMBIGUOUS) | R(ERR_LIMIT));
    if (!r) {
        MUST(scanned((const uint8_t *)t.at, t.size, &d));
        MUST(cJSON_GetArraySize(d.root) == cJSON_GetArraySize(old_root));
        memset(&edited, 0, sizeof(edited));
        edited.doc.text = t.at, edited.doc.size = t.size, edited.doc.code = HLSNAP_ERR_INDEX;
        MUST(hlsnap__oci_index_parse(&edited, &err) == HLSNAP_OK);
        index_agrees(&edited, d.root);
        for (i = 0; i < edited.num && edit.tag; i++) tagged += hlsnap__oci_has_tag(&edited.entries[i], edit.tag);
        edited.doc.text = NULL;
        hlsnap__oci_index_close(&edited);
        if (edit.tag) MUST(tagged == 1);
        hlsnap__json_close(&d);
    }
    hlsnap__free(t.at);
    free(drop);
}

static void fuzz_index(const uint8_t *p, size_t size) {
    static slot index;
    const uint64_t how = hash_of(p, size);
    hlsnap__json d;
    hlsnap__oci_index read;
    hlsnap_oci_info info;
    size_t n;
    const uint8_t *text = expand(p, size, &n);
    const bool object = scanned(text, n, &d);
    memset(&read, 0, sizeof(read));
    slot_set(&index, root, "index.json", text, n);
    before.fd = lowest_fd();
    if (!outcome(hlsnap__oci_entries_read(root, &read, &err), R(OK) | R(ERR_JSON) | R(ERR_INDEX) | R(ERR_LIMIT))) {
        good_add(p, size);
        if (object) index_agrees(&read, d.root); /* else it has more values than a tree is made of */
        if (object) index_edited(&read, d.root, how);
        visits = how / 16 % 5;
        switch (how % 8) {
        case 0: case 1: load_and_look("v1", how / 16 | 1ull << 15, MAY_LOAD & ~R(ERR_LAYOUT)); break;
        case 2: load_and_look(docs[DOC_MANIFEST].digest, how / 16 | 1ull << 15, MAY_LOAD & ~R(ERR_LAYOUT)); break;
        case 3:
            outcome(hlsnap_oci_list(dir_path, visit, NULL, &err), R(OK));
            outcome(hlsnap_oci_list_info(dir_path, visit_info, NULL, &err), R(OK));
            break;
        case 4: outcome(hlsnap_oci_get_info(dir_path, "v1", &info, &err), MAY_INFO & ~R(ERR_LAYOUT)); break;
        case 5: outcome(hlsnap_oci_annotations(dir_path, "v1", visit_text, NULL, &err), MAY_FIND & ~R(ERR_LAYOUT)); break;
        case 6: outcome(hlsnap_oci_layers(dir_path, "v0", visit_layer, NULL, &err), MAY_FIND & ~R(ERR_LAYOUT)); break;
        default: outcome(hlsnap_oci_fsck(dir_path, false, &err), MAY_INFO & ~R(ERR_LAYOUT)); break;
        }
    }
    hlsnap__json_close(&d);
    hlsnap__oci_index_close(&read);
}

QUIET static uint32_t count_of(const uint8_t *p, size_t n, const char *what) {
    const uint8_t *at = p;
    uint32_t num = 0;
    while ((at = (const uint8_t *)memmem(at, n - (size_t)(at - p), what, strlen(what))) != NULL) at++, num++;
    return num;
}

static void fuzz_manifest(const uint8_t *p, size_t size) {
    static slot manifest, index;
    const uint64_t how = hash_of(p, size);
    hlsnap__oci_manifest m;
    hlsnap__json d;
    char digest[72];
    hlsnap_result r;
    size_t n;
    const uint8_t *text = expand(p, size, &n);
    if (!n || n > HLSNAP__OCI_JSON_MAX) return;
    memset(&m, 0, sizeof(m));
    r = scanned(text, n, &d) ? outcome(hlsnap__oci_manifest_read(&d, &m, &err), R(OK) | R(ERR_JSON) | R(ERR_CONFIG) | R(ERR_MEDIA_TYPE) | R(ERR_VERSION)) : err.code;
    MUST(r || (m.num_layers >= 1 && m.num_layers <= HLSNAP__MAX_LAYERS));
    hlsnap__json_close(&d);
    if (!r) good_add(p, size);
    if (r && how % 16) return; /* a file says the same; now and then it is asked */
    blob_set(&manifest, text, n, digest);
    index_set(&index, digest, n);
    before.fd = lowest_fd();
    if (r == HLSNAP_ERR_CONFIG) r = HLSNAP_ERR_MANIFEST;
    if (how / 16 % 8 == 0) outcome(hlsnap_oci_fsck(dir_path, false, &err), MAY_LOAD | R(ERR_MANIFEST));
    if (load_and_look("v1", how / 128, r ? 1ull << r : MAY_LOAD & ~(R(ERR_INDEX) | R(ERR_LAYOUT) | R(ERR_MEDIA_TYPE))) == HLSNAP_OK && how / 8 % 4 == 0)
        outcome(hlsnap_oci_layers(dir_path, "v1", visit_layer, NULL, &err), R(OK));
}

static void fuzz_config(const uint8_t *p, size_t size) {
    static slot config, manifest, index;
    const uint64_t how = hash_of(p, size);
    hlsnap__oci_manifest *m;
    hlsnap__oci_config c;
    hlsnap__json d;
    char digest[72], text[3000];
    uint32_t num = count_of(p, size, "\"$k"), i;
    hlsnap_result r;
    size_t n, k;
    const uint8_t *json_text = expand(p, size, &n);
    if (!n || n > HLSNAP__OCI_JSON_MAX) return;
    num = num < 1 ? 1 : num > LAYERS ? LAYERS : num;
    memset(&c, 0, sizeof(c));
    m = (hlsnap__oci_manifest *)calloc(1, sizeof(*m));
    for (i = 0; i < num; i++) {
        m->memory[i].size = docs[DOC_MEMORY + i].size;
        m->chunks[i].digest = docs[DOC_CHUNKS + i].digest;
    }
    m->num_layers = num;
    r = scanned(json_text, n, &d) ? hlsnap__oci_config_read(&d, m, how % 4 == 1, &c, &err) : err.code;
    outcome(r, MAY_JSON | R(ERR_CONFIG) | R(ERR_VERSION) | R(ERR_ARCH) | R(ERR_CPU));
    free(m);
    hlsnap__guest_release(c.guest);
    hlsnap__free(c.extents);
    hlsnap__json_close(&d);
    if (!r) good_add(p, size);
    if (r && how / 16 % 32) return;
    blob_set(&config, json_text, n, digest);
    k = manifest_text(text, sizeof(text), digest, n, num);
    blob_set(&manifest, text, k, digest);
    index_set(&index, digest, k);
    before.fd = lowest_fd();
    load_and_look("v1", how, 1ull << r);
}

/* [options 4][pages][extents][flips][how much the list is too long] and then, each: [page, pages, layer page], [where 3, what] */
static void fuzz_chunks(const uint8_t *p, size_t size) {
    static slot memory, list, config, manifest, index;
    static uint8_t data[36 * P];
    static uint8_t sums[16 * 32];
    input in = {p, size};
    const uint64_t how = take(&in, 4);
    const uint32_t pages = (uint32_t)take(&in, 1) % 36 + 1, num = (uint32_t)take(&in, 1) % 8 + 1, flips = (uint32_t)take(&in, 1) % 8;
    const size_t bytes = pages * P, want = (size_t)hlsnap__oci_chunks_size(bytes);
    size_t n = want + (size_t)take(&in, 1) % 4 * 32, k;
    hlsnap__oci_layer row = {docs[0].digest, docs[0].digest, pages};
    hlsnap__extent e[8];
    hlsnap__guest *g = guest_new();
    hlsnap__text t = {NULL, 0, 0};
    hlsnap_snapshot s;
    char digest[4][72], text[3000];
    uint32_t i, damaged = 0;
    hlsnap_result r;
    if (n > want + 64) n = want - 32; /* 0, 1, 2 more, or one less */
    for (i = 0; i < num; i++) {
        e[i].page = (uint32_t)take(&in, 1) + 16;
        e[i].pages = (uint32_t)take(&in, 1);
        e[i].layer = 0;
        e[i].layer_page = (uint32_t)take(&in, 1);
    }
    memcpy(data, docs[0].data, 17 * P);
    memcpy(data + 17 * P, docs[0].data, 17 * P);
    memset(data + 34 * P, 0, 2 * P);
    memset(sums, 0, sizeof(sums));
    hlsnap__sha256_chunks(sha, data, bytes, HLSNAP__OCI_CHUNK, sums);
    for (i = 0; i < flips; i++) { /* behind the digests: a wrong byte of memory, or of the list */
        const uint32_t at = (uint32_t)take(&in, 3), with = (uint32_t)take(&in, 1);
        if (!with) continue;
        if (at & 0x800000) sums[at % sizeof(sums)] ^= (uint8_t)with;
        else data[at % bytes] ^= (uint8_t)with;
        damaged++;
    }
    memset(&s, 0, sizeof(s));
    s.guest = g;
    s.generation = 1;
    sum_text(p, size, digest[0]); /* any name will do: only its chunks tell what a memory layer is */
    sum_text(sums, n, digest[1]);
    row.memory = digest[0];
    row.chunks = digest[1];
    MUST(hlsnap__text_start(&t, 1 << 16, &err) == HLSNAP_OK);
    hlsnap__oci_config_write(&t, &s, &row, 1, e, num);
    slot_set(&memory, root_blobs, digest[0] + 7, data, bytes);
    blob_set(&list, sums, n, digest[1]);
    blob_set(&config, t.at, t.size, digest[2]);
    k = (size_t)snprintf(text, sizeof(text), "{\"schemaVersion\":2,\"config\":{\"mediaType\":\"" HLSNAP__OCI_CONFIG_TYPE "\",\"digest\":\"%s\",\"size\":%zu},"
                         "\"layers\":[{\"mediaType\":\"" HLSNAP__OCI_MEMORY_TYPE "\",\"digest\":\"%s\",\"size\":%zu},"
                         "{\"mediaType\":\"" HLSNAP__OCI_CHUNKS_TYPE "\",\"digest\":\"%s\",\"size\":%zu}]}",
                         digest[2], t.size, digest[0], bytes, digest[1], how % 8 == 7 ? want : n);
    blob_set(&manifest, text, k, digest[3]);
    index_set(&index, digest[3], k);
    hlsnap__free(t.at);
    hlsnap__guest_release(g);
    before.fd = lowest_fd();
    r = load_and_look("v1", how | 1ull << 15, R(OK) | R(ERR_MANIFEST) | R(ERR_CONFIG) | R(ERR_DIGEST) | R(ERR_SIZE));
    MUST(!(n != want && r == HLSNAP_OK));
    if (!damaged && n == want) MUST(r != HLSNAP_ERR_DIGEST && r != HLSNAP_ERR_SIZE && r != HLSNAP_ERR_MANIFEST);
}

/* ---- target: a whole directory ---- */

static const char *const dir_names[] = {"oci-layout", "index.json", "blobs", "blobs/sha256", ".hlsnap.lock", ".hlsnap-tmp", ".hlsnap-0123.tmp",
    ".hlsnap-tmp/.hlsnap-4567.tmp", "blobs/sha256/odd", "other", "blobs/sha512",
    "blobs/sha256/0000000000000000000000000000000000000000000000000000000000000000"};
static const char *const dir_refs[] = {"v1", "v0", "foreign", "new"};

/* What an input does to the good layout: [kind][which file][how much][content] */
static void dir_edit(input *in) {
    const uint32_t kind = (uint32_t)take(in, 1) % 12, which = (uint32_t)take(in, 1);
    size_t n = (size_t)take(in, 2), k;
    char path[128];
    const uint8_t *content;
    int fd;
    if (which % 32 < HLSNAP_COUNT(dir_names)) snprintf(path, sizeof(path), "%s", dir_names[which % 32]);
    else snprintf(path, sizeof(path), "blobs/sha256/%s", docs[which % 32 - HLSNAP_COUNT(dir_names) < DOC_INDEX ? which % 32 - HLSNAP_COUNT(dir_names) : 0].digest + 7);
    if (kind != 11) remove_below(root, path);
    switch (kind) {
    case 0: break;
    case 1: case 2: case 3: /* a file of the input's own */
        content = take_bytes(in, &n);
        content = expand(content, n, &k);
        fd = openat(root, path, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
        if (fd < 0) return;
        MUST(write(fd, content, k) == (ssize_t)k);
        close(fd);
        break;
    case 4: (void)!symlinkat(n % 3 == 0 ? "index.json" : n % 3 == 1 ? "../good" : "/dev/zero", root, path); break;
    case 5: mkfifoat(root, path, 0600); break;
    case 6: mkdirat(root, path, 0700); break;
    case 7: (void)!linkat(pristine, n % 2 ? "index.json" : docs[n % DOC_INDEX].digest + 7, root, path, 0); break; /* another's content */
    default: /* a file with a hole, of any size */
        fd = openat(root, path, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
        if (fd < 0) return;
        (void)!ftruncate(fd, kind == 8 ? (off_t)n : kind == 9 ? (off_t)(n % 25 ? 1ull << n % 25 : 4096) : (off_t)docs[n % DOC_INDEX].size);
        close(fd);
        break;
    case 11: /* a good file with some bytes changed; its name follows where it is a blob */
        content = docs[n % DOC_INDEX].data;
        k = docs[n % DOC_INDEX].size;
        {
            uint8_t *copy = (uint8_t *)malloc(k);
            char digest[72];
            memcpy(copy, content, k);
            copy[take(in, 2) % k] ^= (uint8_t)take(in, 1);
            sum_text(copy, k, digest);
            snprintf(path, sizeof(path), "blobs/sha256/%s", which % 2 ? digest + 7 : docs[n % DOC_INDEX].digest + 7);
            remove_below(root, path);
            fd = openat(root, path, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
            if (fd >= 0) MUST(write(fd, copy, k) == (ssize_t)k);
            if (fd >= 0) close(fd);
            free(copy);
        }
        break;
    }
}

/* What is saved into hostile layouts; its bytes depend on no machine. */
static hlsnap_snapshot *dir_snapshot(void) {
    static const hlsnap__extent e[] = {{0, 1, 0, 0}, {30, 2, 0, 1}};
    hlsnap__guest *g = guest_new();
    g->features = 0;
    return snapshot_over(g, layer_new(3, 1, 99), NULL, e, 2);
}

static void dir_operation(uint32_t op, uint32_t how) {
    const char *ref = how / 4 % 4 == 3 ? docs[DOC_MANIFEST + how / 16 % 3].digest : dir_refs[how % 4];
    hlsnap_oci_desc desc = HLSNAP_ZERO;
    hlsnap_oci_digest digest;
    hlsnap_oci_info info;
    hlsnap_snapshot *s = NULL, *saved;
    uint64_t freed;
    hlsnap_result r;
    visits = how / 64;
    desc.any_cpu = true;
    switch (op % 12) {
    case 0: case 1: load_and_look(ref, (how | 1ull << 15) * 257, MAY_LOAD); break;
    case 2:
        outcome(hlsnap_oci_list(dir_path, visit, NULL, &err), MAY_LIST | R(ERR_NOT_FOUND));
        outcome(hlsnap_oci_list_info(dir_path, visit_info, NULL, &err), MAY_LIST | R(ERR_NOT_FOUND));
        break;
    case 3: outcome(hlsnap_oci_get_info(dir_path, ref, &info, &err), MAY_INFO); break;
    case 4: outcome(hlsnap_oci_annotations(dir_path, ref, visit_text, NULL, &err), MAY_FIND); break;
    case 5: outcome(hlsnap_oci_layers(dir_path, ref, visit_layer, NULL, &err), MAY_FIND); break;
    case 6: /* what loaded before a collection does so after it */
        r = hlsnap_oci_load(dir_path, "v1", &desc, &s, NULL, &err);
        hlsnap_snapshot_release(s);
        outcome(hlsnap_oci_gc(dir_path, how % 8 ? 0 : 3600, &freed, &err), (MAY_FIND & ~R(ERR_VERSION)) | R(ERR_UNSUPPORTED) | R(ERR_OS));
        if (!r) MUST(hlsnap_oci_load(dir_path, "v1", &desc, &s, NULL, &err) == HLSNAP_OK);
        if (!r) hlsnap_snapshot_release(s);
        break;
    case 7: outcome(hlsnap_oci_fsck(dir_path, how % 2, &err), MAY_LOAD | R(ERR_OS)); break;
    case 8:
        if (!outcome(hlsnap_oci_tag(dir_path, ref, "new", &err), MAY_FIND | R(ERR_OS)))
            MUST(hlsnap_oci_layers(dir_path, "new", visit_layer, NULL, &err) == HLSNAP_OK);
        break;
    case 9:
        if (!outcome(hlsnap_oci_untag(dir_path, dir_refs[how % 4], &err), MAY_LIST | R(ERR_NOT_FOUND) | R(ERR_MEDIA_TYPE) | R(ERR_OS)))
            MUST(hlsnap_oci_untag(dir_path, dir_refs[how % 4], &err) == HLSNAP_ERR_NOT_FOUND);
        break;
    case 10:
        saved = dir_snapshot();
        r = outcome(hlsnap_oci_save(dir_path, "new", saved, NULL, &digest, &err), MAY_LIST | R(ERR_OS) | R(ERR_AMBIGUOUS));
        hlsnap_snapshot_release(saved);
        if (r) break;
        MUST(hlsnap_oci_load(dir_path, "new", &desc, &s, NULL, &err) == HLSNAP_OK);
        hlsnap_snapshot_release(s);
        break;
    default:
        desc.any_cpu = false;
        if (how / 64 % 2) {
            if (!outcome(hlsnap_oci_copy(dir_path, ref, dir_path, "new", NULL, NULL, &err), MAY_LOAD | R(ERR_OS)))
                MUST(hlsnap_oci_layers(dir_path, "new", visit_layer, NULL, &err) == HLSNAP_OK);
        } else
            outcome(hlsnap_oci_flatten(dir_path, ref, "new", NULL, NULL, &err), MAY_LOAD | R(ERR_OS));
        break;
    }
}

/* [edits][operations][each edit][each operation, 2 bytes] */
static void fuzz_dir(const uint8_t *p, size_t size) {
    input in = {p, size};
    const uint32_t first = (uint32_t)take(&in, 1), edits = first % 8, operations = (uint32_t)take(&in, 1) % 6 + 1;
    uint32_t i, op;
    fuzz_no_openat2 = first / 8 % 4 == 1;
    layout_reset();
    before.fd = lowest_fd();
    for (i = 0; i < edits; i++) dir_edit(&in);
    MUST(lowest_fd() == before.fd);
    for (i = 0; i < operations; i++) {
        op = (uint32_t)take(&in, 1);
        dir_operation(op, (uint32_t)take(&in, 1));
        MUST(lowest_fd() == before.fd);
    }
}

/* ---- target: ELF ---- */

/* What fits is what there is, as far as it goes, in order. */
static void unresolved_must_hold(const hlsnap_guest_desc *d) {
    static char all[1 << 16], some[40];
    size_t all_size = 7, some_size = 7, n;
    const hlsnap_result r = outcome(hlsnap_guest_unresolved(d, all, sizeof(all), &all_size, &err),
                                    R(OK) | R(ERR_ELF) | R(ERR_ELF_SEGMENT) | R(ERR_ELF_DYNAMIC) | R(ERR_ELF_RELOC) | R(ERR_ABI) | R(ERR_LIMIT));
    if (r) return;
    MUST(hlsnap_guest_unresolved(d, some, sizeof(some), &some_size, &err) == HLSNAP_OK && some_size == all_size);
    n = strlen(some);
    MUST(n < sizeof(some) && strncmp(all, some, n) == 0 && (n == 0 || some[n - 1] == '\n'));
    MUST(all_size >= sizeof(all) || strlen(all) == all_size);
    for (const char *at = all, *next; (next = strchr(at, '\n')) != NULL && next[1]; at = next + 1) MUST(strcmp(at, next + 1) < 0);
}

static void fuzz_elf(const uint8_t *p, size_t size) {
    hlsnap_guest_desc d = HLSNAP_ZERO;
    hlsnap_snapshot *s = (hlsnap_snapshot *)(void *)&d;
    hlsnap_result r;
    uint32_t i;
    d.data = p;
    d.data_size = size;
    if (!size) return;
    unresolved_must_hold(&d);
    r = outcome(hlsnap_snapshot_from_guest(&d, &s, &err),
                R(OK) | R(ERR_ELF) | R(ERR_ELF_SEGMENT) | R(ERR_ELF_DYNAMIC) | R(ERR_ELF_RELOC) | R(ERR_ABI));
    MUST(!s == (r != HLSNAP_OK));
    if (r) return;
    good_add(p, size);
    snapshot_must_hold(s);
    for (i = 0; i < s->guest->layout.num_regions; i++) {
        hlsnap_region region;
        MUST(hlsnap_snapshot_region(s, i, &region) && !(region.writable && region.executable));
    }
    hlsnap_snapshot_release(s);
}

/* ---- targets: what a guest gives to its host ---- */

static hlsnap_sandbox *box;         /* that the hostile guest runs in */
static hlsnap_snapshot *box_before, *box_after; /* before and after its init */
static input script;                /* what the guest does next */
static uint8_t box_data[3][P] __attribute__((aligned(4096)));
static const struct { const char *name; hlsnap_map_mode mode; } box_maps[] = {{"model", HLSNAP_MAP_READ}, {"own", HLSNAP_MAP_PRIVATE}, {"ring", HLSNAP_MAP_SHARED}};
static char asked[80];              /* the map that the guest has asked for, with its last step; "" = none */
static struct { bool armed; uint32_t num; const uint8_t *at; } race; /* changes of the mailbox, 10 bytes each, one after each look */

static void *fuzz_memcpy(void *to, const void *from, size_t n) {
    const uint8_t *p = (const uint8_t *)from;
    memcpy(to, from, n);
    if (race.armed && race.num && p >= box->mailbox && p < box->mailbox + box->mailbox_size) {
        uint64_t at = hlsnap__get64(race.at) & 0xffff;
        if (at & 0x8000) at = (at & 0x7ff) + hlsnap__out_offset(box);
        __builtin_memcpy(box->mailbox + (at & 0x7fff), race.at + 2, 8);
        race.at += 10;
        race.num--;
    }
    return to;
}

/* What the host has answered, to an honest question: where the map lies, or nowhere. */
static void box_map_check(const hlsnap_abi_mailbox *m) {
    hlsnap_abi_message head;
    hlsnap_value v[HLSNAP_MAX_ARGS];
    uint32_t i;
    MUST(m->response < box->mailbox_size && fake_decode((const uint8_t *)m + m->response, box->mailbox_size - m->response, &head, v));
    MUST(head.num_values == 2 && v[0].type == HLSNAP_U64 && v[1].type == HLSNAP_U64);
    for (i = 0; i < HLSNAP_COUNT(box_maps) && strcmp(box_maps[i].name, asked) != 0;) i++;
    MUST(v[1].as.u64 == (i < HLSNAP_COUNT(box_maps) ? P : 0));
    MUST(v[0].as.u64 == (i < HLSNAP_COUNT(box_maps) ? MAP_AREA + i * (2ull << 20) : 0));
}

/* Notes what is asked for, where nothing else is wrong with the question. */
static void box_map_ask(const uint8_t *request, size_t room) {
    hlsnap_abi_message head;
    hlsnap_value v[HLSNAP_MAX_ARGS];
    if (race.num || !fake_decode(request, room, &head, v) || head.function != HLSNAP_ABI_FN_MAP || head.num_values != 2) return;
    if (v[0].type == HLSNAP_I32 && v[1].type == HLSNAP_STR && v[1].size < sizeof(asked)) snprintf(asked, sizeof(asked), "%s", v[1].str);
}

/* The script's next step: [how it leaves][num_done +][request +][bytes][where][the bytes, written to the out part] */
static void box_step(fake_cpu *cpu, hlsnap_abi_mailbox *m) {
    static const hlsnap__exit_kind kinds[] = {HLSNAP__EXIT_RETURN, HLSNAP__EXIT_CALL, HLSNAP__EXIT_CALL, HLSNAP__EXIT_RETURN, HLSNAP__EXIT_FAULT,
                                              HLSNAP__EXIT_KICKED, HLSNAP__EXIT_PROTOCOL, HLSNAP__EXIT_DEAD};
    const uint32_t kind = (uint32_t)take(&script, 1), out = cpu->out;
    const uint32_t done = (uint32_t)take(&script, 2), request = (uint32_t)take(&script, 2);
    size_t n = (size_t)take(&script, 2), at = (size_t)take(&script, 1) * 8;
    const uint8_t *bytes = take_bytes(&script, &n);
    if (cpu->resumed && asked[0] && m->op == HLSNAP_ABI_OP_CALL) box_map_check(m);
    asked[0] = 0;
    if (at + n > 4096) n = 4096 - at;
    memcpy((uint8_t *)m + out + at, bytes, n);
    if (kinds[kind % 8] == HLSNAP__EXIT_CALL && request <= 2048 && m->op == HLSNAP_ABI_OP_CALL) box_map_ask((uint8_t *)m + out + request, 2048);
    m->num_done = done & 0x8000 ? done * 0x10001u : m->num_calls + done;
    m->request = request & 0x8000 ? request * 0x10001u : out + request;
    fake_leave(cpu, script.left || kind % 8 ? kinds[kind % 8] : HLSNAP__EXIT_RETURN, "a step");
    if (cpu->exit->kind == HLSNAP__EXIT_FAULT) {
        cpu->exit->vector = kind >> 3;
        cpu->exit->rip = FAKE_TEXT + done;
        cpu->exit->cr2 = (uint64_t)request << (kind >> 4);
    }
}

static void box_code(fake_cpu *cpu) {
    hlsnap_abi_mailbox *m = fake_mailbox(cpu);
    if (!cpu->resumed) cpu->out = m->out_offset; /* before the guest changes its own header */
    m->guest_abi = HLSNAP_ABI_VERSION;
    if (m->op == HLSNAP_ABI_OP_INIT && !script.p) fake_runtime(cpu); /* the honest one, to begin with */
    else if (!script.left) fake_leave(cpu, HLSNAP__EXIT_RETURN, "");
    else if (m->op == HLSNAP_ABI_OP_CALL) box_step(cpu, m);
    else { /* [requests before][guest_abi][entry][num_exports][text or bytes][the list] */
        const uint32_t steps = (uint32_t)take(&script, 1);
        size_t n = 4096;
        if (!cpu->resumed && steps & 1) {
            box_step(cpu, m);
            return;
        }
        m->guest_abi = (uint32_t)take(&script, 1) == 255 ? 1 : HLSNAP_ABI_VERSION;
        m->entry = take(&script, 1) == 0 ? 0 : FAKE_TEXT - 16 + take(&script, 8);
        m->num_exports = (uint32_t)take(&script, 2);
        m->num_exports |= m->num_exports & 0x8000 ? 0xffff0000u : 0;
        if (take(&script, 1) & 1) {
            const uint8_t *bytes = take_bytes(&script, &n);
            memcpy((uint8_t *)m + cpu->out, bytes, n);
        } else { /* lines of text, as str values */
            hlsnap_value v[64];
            char text[64][80];
            uint32_t num = 0;
            for (; script.left && num < 64; num++) {
                for (n = 0; n < 79 && script.left && *script.p != '\n'; n++) text[num][n] = (char)take(&script, 1);
                text[num][n] = 0;
                if (script.left && *script.p == '\n') take(&script, 1);
                v[num] = hlsnap_str(text[num]);
            }
            fake_encode((uint8_t *)m + cpu->out, 0, HLSNAP_ABI_STATUS_OK, v, num);
        }
        m->num_done = 1;
        fake_leave(cpu, HLSNAP__EXIT_RETURN, "");
    }
}

static void box_log(int level, const char *text, size_t size, void *user) {
    (void)user;
    MUST(level >= 0 && level <= 4 && strlen(text) == size && readable(text, size, true));
}

FN(n_last) { return (void)user, hlsnap_call_return(call, ARG(HLSNAP_MAX_ARGS - 1)); }
FN(n_negate) { return (void)user, hlsnap_call_return(call, hlsnap_i32(~ARG(0).as.i32)); }

static void box_make(void) {
    static hlsnap_function functions[HLSNAP_COUNT(host_functions)];
    static const fake_program programs[] = {{box_code, fake_exports, HLSNAP_COUNT(fake_exports), fake_imports, NUM_IMPORTS}};
    hlsnap_guest_desc g = fake_guest(0, 16);
    hlsnap_sandbox_desc d = host_desc();
    hlsnap_map maps[HLSNAP_COUNT(box_maps)];
    size_t i;
    fake_init(&hv, programs, 1);
    memcpy(functions, host_functions, sizeof(functions));
    for (i = 0; i < HLSNAP_COUNT(functions); i++) /* of any number that a guest comes up with */
        if (functions[i].fn == g_twice || functions[i].fn == g_sum) functions[i].fn = functions[i].fn == g_twice ? n_negate : n_last;
    d.functions = functions;
    d.log = box_log;
    d.log_level = 3;
    g.mailbox_size = 64u << 10;
    memset(maps, 0, sizeof(maps));
    for (i = 0; i < HLSNAP_COUNT(maps); i++) {
        maps[i].name = box_maps[i].name;
        maps[i].mode = box_maps[i].mode;
        maps[i].data = box_data[i];
        maps[i].size = P;
    }
    d.maps = maps;
    d.num_maps = HLSNAP_COUNT(maps);
    MUST(hlsnap_snapshot_from_guest(&g, &box_before, &err) == HLSNAP_OK);
    MUST(hlsnap_sandbox_create_from(box_before, &d, &box, &err) == HLSNAP_OK);
    MUST(hlsnap_sandbox_snapshot(box, &box_after, &err) == HLSNAP_OK);
}

/* Races stand at the input's end: [how many] is its last byte. */
static void script_set(const uint8_t *p, size_t size) {
    race.num = size ? p[size - 1] % 16 : 0;
    if (race.num * 10 + 1 > size) race.num = 0;
    script.p = p;
    script.left = size ? size - 1 - race.num * 10 : 0;
    race.at = p + script.left;
    race.armed = true;
    asked[0] = 0;
}

#define MAY_RUN (R(OK) | R(ERR_PROTOCOL) | R(ERR_ABORT) | R(ERR_EXIT) | R(ERR_FAULT) | R(ERR_HYPERVISOR))

static void fuzz_boot(const uint8_t *p, size_t size) {
    hlsnap_snapshot *s = NULL;
    hlsnap_result r;
    script_set(p, size);
    r = outcome(hlsnap_sandbox_restore(box, box_before, &err), MAY_RUN | R(ERR_ABI) | R(ERR_ARG) | R(ERR_SIGNATURE) | R(ERR_DUPLICATE) | R(ERR_CONTRACT) | R(ERR_LIMIT));
    race.armed = false;
    MUST((hlsnap_sandbox_get_state(box) == HLSNAP_READY) == !r);
    if (!r) {
        good_add(p, size);
        MUST(hlsnap_sandbox_snapshot(box, &s, &err) == HLSNAP_OK);
        snapshot_must_hold(s);
        hlsnap_snapshot_release(s);
    }
    MUST(hlsnap_sandbox_restore(box, box_after, &err) == HLSNAP_OK);
    before.live = inject.live; /* what the sandbox keeps from one call to the next */
    before.maps = inject.maps;
    MUST(hv.bad == 0);
}

/* The arguments of any export, by its signature. */
static size_t sample_args(const char *signature, hlsnap_value *v) {
    hlsnap__signature sig;
    size_t i;
    MUST(hlsnap__signature_parse(&sig, signature, strlen(signature)));
    for (i = 0; i < sig.num_args; i++) {
        v[i] = hlsnap__value((hlsnap_type)sig.args[i]);
        if (v[i].type == HLSNAP_STR) v[i] = hlsnap_str("1234567");
        if (v[i].type == HLSNAP_BYTES) v[i] = hlsnap_bytes("1234567", 7);
    }
    return i;
}

static void value_must_be(const hlsnap_value *v, uint32_t type) {
    static volatile uint8_t sink;
    size_t i;
    MUST((uint32_t)v->type == type);
    if (type == HLSNAP_STR) MUST(strlen(v->str) == v->size);
    for (i = 0; type == HLSNAP_BYTES && i < v->size; i++) sink = (uint8_t)(sink ^ v->bytes[i]);
    if (type == HLSNAP_BOOL) MUST(v->as.u64 <= 1);
}

/* [exports][each one's number] and then the guest's steps */
static void fuzz_host(const uint8_t *p, size_t size) {
    static const hlsnap_result mild[] = {HLSNAP_OK, HLSNAP_ERR_FUNCTION, HLSNAP_ERR_SIGNATURE, HLSNAP_ERR_LIMIT};
    hlsnap_invocation calls[8];
    hlsnap_value args[8][HLSNAP_MAX_ARGS], outs[8];
    uint32_t i, num, at[8];
    size_t done = 99;
    hlsnap_result r;
    bool ready = false;
    script_set(p, size);
    num = (uint32_t)take(&script, 1) % 8 + 1;
    for (i = 0; i < num; i++) {
        at[i] = (uint32_t)take(&script, 1) % HLSNAP_COUNT(fake_exports);
        MUST(hlsnap_sandbox_find(box, fake_exports[at[i]].name, fake_exports[at[i]].signature, &calls[i].target, &err) == HLSNAP_OK);
        calls[i].args = args[i];
        calls[i].num_args = sample_args(fake_exports[at[i]].signature, args[i]);
        calls[i].timeout_ns = calls[i].cpu_ns = 0;
        calls[i].user = NULL;
    }
    hlsnap__free(box->results.data); /* so that a byte too far is seen */
    hlsnap__free(box->request.data);
    memset(&box->results, 0, sizeof(box->results));
    memset(&box->request, 0, sizeof(box->request));
    r = outcome(hlsnap_sandbox_invoke(box, calls, num, outs, &done, &err), MAY_RUN | R(ERR_FUNCTION) | R(ERR_SIGNATURE) | R(ERR_LIMIT));
    race.armed = false;
    if (!r) good_add(p, size);
    MUST(done <= num && (r || done == num));
    for (i = 0; i < done; i++) {
        hlsnap__signature sig;
        hlsnap__signature_parse(&sig, fake_exports[at[i]].signature, strlen(fake_exports[at[i]].signature));
        value_must_be(&outs[i], sig.result);
    }
    for (i = 0; i < 4; i++) ready = ready || r == mild[i];
    MUST((hlsnap_sandbox_get_state(box) == HLSNAP_READY) == ready);
    MUST(hlsnap_sandbox_restore(box, box_after, &err) == HLSNAP_OK);
    before.live = inject.live;
    before.maps = inject.maps;
    MUST(hv.bad == 0);
}

/* ---- target: what a host gives to its guest ---- */

#define GUEST_IN 4096u
#define GUEST_OUT 32768u
#define GUEST_HEAP (1u << 20)
static struct {
    hlsnap_abi_identity identity;
    uint8_t *box, *runtime, *heap;
    jmp_buf leave;
    uint64_t given[8]; /* bytes of the results that were copied before they were returned */
    uint32_t num_given;
    int32_t aborted;
    uint32_t requests;
} native;
static const hlsnap_function guest_imports[] = {{"i", "i32(i32)", NULL, NULL}, {"s", "str(str)", NULL, NULL}, {"b", "bytes(bytes,u64)", NULL, NULL},
                                                {"v", "void()", NULL, NULL}};

FN(n_relay) { /* passes its arguments on to the import of its name, and what comes back to its caller */
    const hlsnap_function *import = (const hlsnap_function *)user;
    hlsnap_value args[HLSNAP_MAX_ARGS], out = hlsnap__value(HLSNAP_TYPE_FORCE32);
    hlsnap_error e;
    size_t i;
    for (i = 0; i < call->signature->num_args; i++) args[i] = ARG(i);
    if (hlsnap_rt_call(import->name, args, i, &out, &e)) {
        MUST(memchr(e.msg, 0, sizeof(e.msg)) != NULL);
        return hlsnap_call_fail(call, e.user_code, e.msg);
    }
    value_must_be(&out, call->signature->result);
    return hlsnap_call_return(call, out);
}
FN(n_log) {
    (void)user;
    hlsnap_rt_log(2, "%s %d", ARG(0).str, ARG(1).as.i32);
    hlsnap_rt_print("%.*s", 5, ARG(0).str);
    return HLSNAP_OK;
}
FN(n_bytes) { /* keeps them for a while */
    const hlsnap_value v = ARG(0);
    uint8_t *p = (uint8_t *)hlsnap_rt_malloc(v.size + 1);
    hlsnap_result r;
    (void)user;
    if (!p) return hlsnap_call_fail(call, 1, "no memory");
    hlsnap__rt_memcpy(p, v.bytes, v.size);
    r = hlsnap_call_return(call, hlsnap_bytes(p, v.size));
    hlsnap_rt_free(p);
    return r;
}
/* What the host says of a map is what the guest gets; `told` is how the harness has read it. */
static struct { bool asked, good; uint64_t gva, size; } told;
FN(n_map) {
    uint64_t size = 77, gva;
    (void)user;
    told.asked = false;
    gva = (uintptr_t)hlsnap_rt_map(ARG(0).str, &size);
    MUST(told.asked && told.good && gva == told.gva && size == told.size);
    return hlsnap_call_return(call, hlsnap_u64(gva));
}
static const hlsnap_function guest_exports[] = {
    {"i", "i32(i32)", n_relay, (void *)(uintptr_t)&guest_imports[0]}, {"s", "str(str)", n_relay, (void *)(uintptr_t)&guest_imports[1]},
    {"b", "bytes(bytes,u64)", n_relay, (void *)(uintptr_t)&guest_imports[2]}, {"v", "void()", n_relay, (void *)(uintptr_t)&guest_imports[3]},
    {"log", "void(str,i32)", n_log, NULL}, {"keep", "bytes(bytes)", n_bytes, NULL}, {"not", "i32(i32)", n_negate, NULL},
    {"bool", "bool(bool)", g_echo, NULL}, {"f32", "f32(f32)", g_echo, NULL}, {"all", "i64(bool,i32,u32,i64,u64,f32,f64,str,bytes)", g_nop, NULL},
    {"map", "u64(str)", n_map, NULL}};
static const hlsnap_module guest_module = {guest_exports, HLSNAP_COUNT(guest_exports), guest_imports, HLSNAP_COUNT(guest_imports)};

static hlsnap_abi_mailbox *native_box(void) { return (hlsnap_abi_mailbox *)(void *)native.box; }

static void fuzz_out_return(void) { longjmp(native.leave, 1); }

static void heap_must_have(uint64_t gva, uint64_t size) {
    const uint64_t heap = (uintptr_t)native.heap;
    MUST(gva >= heap && size <= GUEST_HEAP && gva - heap <= GUEST_HEAP - size);
}

static void given_must_be(uint64_t size) {
    uint32_t i = 0;
    while (i < native.num_given && i < 8 && native.given[i] != size) i++;
    MUST(i < native.num_given && i < 8);
}

/* References lead into the heap, or to what was given before; each becomes a number, which fake_decode reads. */
static void references_check(uint8_t *message, size_t room) {
    hlsnap_abi_message head;
    uint32_t i;
    memcpy(&head, message, sizeof(head));
    MUST(head.size <= room && head.num_values <= HLSNAP_MAX_ARGS);
    for (i = 0; i < head.num_values; i++) {
        uint8_t *at = message + sizeof(head) + i * sizeof(hlsnap_abi_value);
        hlsnap_abi_reference where;
        hlsnap_abi_value row;
        memcpy(&row, at, sizeof(row));
        if (!(row.type & HLSNAP_ABI_REFERENCE)) continue;
        MUST((row.type & ~HLSNAP_ABI_REFERENCE) >= HLSNAP_STR && !row.size && row.bits % 8 == 0);
        MUST(head.size >= sizeof(where) && row.bits <= head.size - sizeof(where));
        memcpy(&where, message + row.bits, sizeof(where));
        if (where.gva) heap_must_have(where.gva, where.size);
        else given_must_be(where.size);
        row.type = HLSNAP_U64;
        memcpy(at, &row, sizeof(row));
    }
}

/* A response that had no room in the mailbox, where the guest has some: in the heap. */
static void take_response(uint64_t gva, uint64_t size) {
    const uint8_t *response;
    size_t n = (size_t)take(&script, 1) * 8;
    if (!gva) return;
    heap_must_have(gva, size);
    if (n > size) n = (size_t)size;
    response = take_bytes(&script, &n);
    memset((uint8_t *)(uintptr_t)gva, 0, (size_t)size);
    memcpy((uint8_t *)(uintptr_t)gva, response, n);
}

static void map_told(bool well_asked) {
    const hlsnap_abi_mailbox *m = native_box();
    hlsnap_abi_message head;
    hlsnap_value v[HLSNAP_MAX_ARGS];
    MUST(well_asked);
    told.asked = true;
    told.good = fake_decode(native.box + m->response, (size_t)native.identity.mailbox_size - m->response, &head, v) && head.num_values == 2;
    told.gva = told.good ? v[0].as.u64 : 0;
    told.size = told.good ? v[1].as.u64 : 0;
}

/* The guest asks: its request is well-formed, whatever it was told; the script's next bytes are the response. */
static void fuzz_out_call(void) {
    hlsnap_abi_mailbox *m = native_box();
    hlsnap_abi_message head;
    hlsnap_value v[HLSNAP_MAX_ARGS];
    size_t n = (size_t)take(&script, 1) * 8;
    const uint8_t *response;
    MUST(m->request >= m->out_offset && m->request % 8 == 0 && m->request < m->out_offset + m->out_size);
    references_check(native.box + m->request, m->out_offset + m->out_size - m->request);
    MUST(fake_decode(native.box + m->request, m->out_offset + m->out_size - m->request, &head, v));
    if (head.function == HLSNAP_ABI_FN_ABORT) {
        MUST(head.num_values == 2);
        native.aborted = v[0].as.i32;
        longjmp(native.leave, 2);
    }
    if (++native.requests > 64) longjmp(native.leave, 3);
    if (head.function == HLSNAP_ABI_FN_LOG) return;
    if (head.function == HLSNAP_ABI_FN_TAKE || head.function == HLSNAP_ABI_FN_RESULT) {
        MUST(head.num_values == 2 && v[0].type == HLSNAP_U64 && v[1].type == HLSNAP_U64);
        if (head.function == HLSNAP_ABI_FN_TAKE) take_response(v[0].as.u64, v[1].as.u64);
        else heap_must_have(v[0].as.u64, v[1].as.u64);
        if (head.function == HLSNAP_ABI_FN_RESULT) native.given[native.num_given++ % 8] = v[1].as.u64;
        return;
    }
    MUST(head.function < HLSNAP_COUNT(guest_imports) || head.function == HLSNAP_ABI_FN_MAP);
    response = take_bytes(&script, &n);
    memcpy(native.box + m->response, response, n);
    if (head.function == HLSNAP_ABI_FN_MAP) map_told(head.num_values == 2 && v[0].type == HLSNAP_I32 && v[1].type == HLSNAP_STR);
}

static void native_make(void) {
    const size_t size = sizeof(hlsnap_abi_mailbox) + GUEST_IN + GUEST_OUT + 4096;
    const uintptr_t flag = (uintptr_t)&hlsnap__rt_in_guest, page = flag & ~(uintptr_t)4095;
    MUST(mprotect((void *)page, 8192, PROT_READ | PROT_WRITE) == 0);
    *(volatile uint64_t *)flag = 1; /* as a loader does to a guest's copy */
    native.box = (uint8_t *)malloc(size);
    native.runtime = (uint8_t *)malloc(8192);
    native.heap = (uint8_t *)aligned_alloc(4096, GUEST_HEAP);
    native.identity.magic = HLSNAP_ABI_MAGIC;
    native.identity.log_level = 3;
    native.identity.mailbox = (uintptr_t)native.box;
    native.identity.mailbox_size = size;
    native.identity.heap = (uintptr_t)native.heap;
    native.identity.heap_size = GUEST_HEAP;
    native.identity.module = (uintptr_t)&guest_module;
    native.identity.runtime = (uintptr_t)native.runtime;
    native.identity.runtime_size = 8192;
    fuzz_identity_page = &native.identity;
}

/* The header as an honest host writes it: a guest believes it. What stands behind it is the input's. */
static void native_begin(uint32_t op, uint32_t num_calls) {
    hlsnap_abi_mailbox *m = native_box();
    memset(native.box, 0, (size_t)native.identity.mailbox_size);
    m->magic = HLSNAP_ABI_MAGIC;
    m->op = op;
    m->in_offset = sizeof(*m);
    m->in_size = (uint32_t)native.identity.mailbox_size - m->in_offset;
    m->out_offset = m->in_offset + GUEST_IN;
    m->out_size = GUEST_OUT;
    m->response = m->out_offset + GUEST_OUT;
    m->num_calls = num_calls;
}

/* A host checks the types of arguments before it sends them, and writes none where results go, so a guest need not look at that:
   whether it would have sent these. */
static bool native_honest(uint32_t calls) {
    const hlsnap_abi_mailbox *m = native_box();
    hlsnap_value v[HLSNAP_MAX_ARGS];
    hlsnap_abi_message head;
    hlsnap__signature sig;
    size_t at = 0;
    for (; calls; calls--, at += head.size) {
        if (!hlsnap__message_read(native.box + m->in_offset + at, m->in_size - at, &head, v, HLSNAP_MAX_ARGS)) return true;
        if (at + head.size > GUEST_IN) return false;
        if (head.function >= HLSNAP_COUNT(guest_exports)) return true;
        MUST(hlsnap__signature_parse(&sig, guest_exports[head.function].signature, strlen(guest_exports[head.function].signature)));
        if (head.num_values != sig.num_args) return true;
        if (hlsnap__args_check(&sig, "", v, head.num_values, NULL)) return false;
    }
    return true;
}

/* [calls][bytes of calls / 8] the calls, then responses: [bytes / 8] and they */
static void fuzz_guest(const uint8_t *p, size_t size) {
    hlsnap_abi_mailbox *m = native_box();
    uint32_t calls;
    size_t n;
    volatile int how;
    script.p = p;
    script.left = size;
    native_begin(HLSNAP_ABI_OP_INIT, 0);
    native.requests = native.num_given = 0;
    if (!setjmp(native.leave)) hlsnap__rt_start(m);
    MUST(m->num_done == 1 && m->num_exports == HLSNAP_COUNT(guest_exports));
    calls = (uint32_t)take(&script, 1) % 5;
    native_begin(HLSNAP_ABI_OP_CALL, calls);
    n = (size_t)take(&script, 2) % (GUEST_IN / 8) * 8;
    memcpy(native.box + m->in_offset, take_bytes(&script, &n), n);
    if (!native_honest(calls)) return;
    native.aborted = 0;
    how = setjmp(native.leave);
    if (!how) hlsnap__rt_start(m);
    MUST(how == 3 || (how == 2) == (native.aborted != 0));
    if (how == 2) MUST(native.aborted == HLSNAP__ABORT_MAILBOX);
    if (how == 1) {
        uint32_t i, at = m->out_offset;
        good_add(p, size);
        MUST(m->num_done <= calls);
        for (i = 0; i < m->num_done; i++) {
            hlsnap_abi_message head;
            hlsnap_value v[HLSNAP_MAX_ARGS];
            references_check(native.box + at, m->out_offset + m->out_size - at);
            MUST(fake_decode(native.box + at, m->out_offset + m->out_size - at, &head, v));
            at += head.size;
        }
    }
}

/* ---- seeds ---- */

static int seed_dir;
static uint32_t seed_number;
static void seed_bytes(const void *p, size_t n) {
    char name[32];
    snprintf(name, sizeof(name), "seed-%03u", seed_number++);
    file_write(seed_dir, name, p, n);
}
static void seed_text(const char *text) { seed_bytes(text, strlen(text)); }
static void seed_doc(const void *p, size_t n) {
    static uint8_t text[1 << 20];
    seed_bytes(text, collapse((const uint8_t *)p, n, text));
}

static void seeds_layout(void) {
    seed_text("{\"imageLayoutVersion\":\"1.0.0\"}");
    seed_text(" {\"imageLayoutVersion\" : \"1.\\u0030.0\",\r\n\t\"x\":[1,-2,null,true,false,{},[],\"\\\"\\\\\\/\\b\\f\\n\\r\\t\\ud83d\\ude00\xc3\xbc\xe2\x82\xac\xf0\x9f\x98\x80\"]}\n");
    seed_text("{\"imageLayoutVersion\":\"2.0.0\",\"a\":9007199254740992}");
}

static void seeds_index(void) {
    static const char type[] = "{\"mediaType\":\"" MANIFEST_TYPE "\"";
    char text[4000];
    seed_text(index_template);
    seed_text("{\"schemaVersion\":2,\"manifests\":null}");
    snprintf(text, sizeof(text), INDEX_HEAD "%s,\"digest\":\"$a0\",\"size\":$A0,\"annotations\":{\"" HLSNAP__OCI_REF_NAME "\":\"v1\"}},%s,\"digest\":\"$a1\","
             "\"size\":$A1,\"annotations\":{\"" HLSNAP__OCI_REF_NAME "\":\"v1\"}}]}", type, type);
    seed_text(text); /* a tag twice */
    snprintf(text, sizeof(text), INDEX_HEAD "%s,\"digest\":\"$a0\",\"size\":$A0,\"annotations\":{\"x\":\"y\",\"" HLSNAP__OCI_REF_NAME "\":\"v1\"}},%s,\"digest\":"
             "\"$a0\",\"size\":$A0}],\"x\":{\"digest\":\"$n0\",\"mediaType\":\"" HLSNAP__OCI_INDEX_TYPE "\"}}", type, type);
    seed_text(text);
}

static void seeds_manifest(void) {
    hlsnap__oci_layer rows[LAYERS];
    hlsnap__text t = {NULL, 0, 0};
    hlsnap__oci_blob config;
    hlsnap__guest *g = guest_new();
    uint32_t i;
    hlsnap__oci_blob_none(&config);
    MUST(hlsnap__text_start(&t, 1 << 16, &err) == HLSNAP_OK);
    for (i = 0; i < LAYERS; i++) {
        rows[i].memory = docs[DOC_MEMORY + i].digest;
        rows[i].chunks = docs[DOC_CHUNKS + i].digest;
        rows[i].pages = layer_pages[i];
        memcpy(config.digest, docs[DOC_CONFIG + i].digest, 72);
        config.size = docs[DOC_CONFIG + i].size;
        t.size = 0;
        hlsnap__oci_manifest_write(&t, g, rows, i + 1, &config, 0);
        seed_doc(t.at, t.size);
        seed_doc(docs[DOC_MANIFEST + i].data, docs[DOC_MANIFEST + i].size);
    }
    seed_doc(docs[DOC_FOREIGN].data, docs[DOC_FOREIGN].size);
    hlsnap__free(t.at);
    hlsnap__guest_release(g);
}

/* A config with maps, over the first `num` layers. */
static void seed_maps(uint32_t num, const hlsnap__extent *e, uint32_t num_e, const hlsnap__map *maps, uint32_t num_maps) {
    hlsnap__oci_layer rows[LAYERS];
    hlsnap__text t = {NULL, 0, 0};
    hlsnap_snapshot s;
    uint32_t i;
    memset(&s, 0, sizeof(s));
    s.guest = guest_new();
    s.generation = 9;
    s.maps = (hlsnap__map *)(uintptr_t)maps;
    s.num_maps = num_maps;
    for (i = 0; i < num; i++) {
        rows[i].memory = docs[DOC_MEMORY + i].digest;
        rows[i].chunks = docs[DOC_CHUNKS + i].digest;
        rows[i].pages = layer_pages[i];
    }
    MUST(hlsnap__text_start(&t, 1 << 20, &err) == HLSNAP_OK);
    hlsnap__oci_config_write(&t, &s, rows, num, e, num_e);
    seed_doc(t.at, t.size);
    hlsnap__free(t.at);
    hlsnap__guest_release(s.guest);
}

#define SEED_DIGEST "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
static void seeds_maps(void) {
    static const hlsnap__map captured[] = {{"model", "", HLSNAP_MAP_READ, true, false, MAP_AREA, 17 * P - 5, NULL}},
        kinds[] = {{"index", SEED_DIGEST, HLSNAP_MAP_PRIVATE, false, false, MAP_AREA, 5 * P, NULL},
                   {"ring", "", HLSNAP_MAP_SHARED, false, false, MAP_AREA + (2u << 20), P, NULL},
                   {"a.b:c$-", "", HLSNAP_MAP_PRIVATE, false, true, MAP_AREA + (6u << 20), (2u << 20) - P, NULL}},
        equal[] = {{"one", "", HLSNAP_MAP_READ, true, false, MAP_AREA, 3 * P, NULL},
                   {"two", SEED_DIGEST, HLSNAP_MAP_PRIVATE, true, false, MAP_AREA + (2u << 20), 3 * P - 1, NULL},
                   {"last", "", HLSNAP_MAP_READ, false, true, 0x7f0fffe00000ull, 2u << 20, NULL}};
    static const hlsnap__extent whole[] = {{1024, 17, 0, 0}}, some[] = {{0, 4, 0, 0}, {20, 9, 0, 4}, {1024, 2, 1, 0}, {1028, 1, 1, 2}, {2560, 1, 0, 14}},
        twice[] = {{0, 4, 0, 0}, {1024, 3, 1, 0}, {1536, 1, 1, 0}, {1537, 1, 2, 0}, {1538, 1, 1, 2}};
    seed_maps(1, whole, 1, captured, 1);
    seed_maps(2, some, 5, kinds, 3);
    seed_maps(3, twice, 5, equal, 3);
}

static void seeds_config(void) {
    uint32_t i;
    for (i = 0; i < LAYERS; i++) seed_doc(docs[DOC_CONFIG + i].data, docs[DOC_CONFIG + i].size);
    seeds_maps();
}

static void seeds_chunks(void) {
    static const uint8_t rows[][24] = {
        {0, 0, 0, 0, 16, 0, 0, 0, 4, 17, 0},                       /* 17 pages, all in one extent */
        {0, 0, 0, 0, 35, 2, 0, 0, 4, 10, 0, 20, 20, 10, 60, 10, 30}, /* 36 pages, three extents */
        {0, 0, 0, 0, 35, 1, 1, 0, 4, 16, 0, 40, 1, 35, 0, 0, 1, 7},  /* a wrong byte that is shown */
        {0, 0, 0, 0, 35, 0, 1, 0, 4, 16, 0, 0, 0, 3, 7},             /* and one that is not */
        {0, 0, 0, 0, 35, 1, 1, 0, 4, 16, 0, 40, 16, 16, 1, 0, 0x80, 9}, /* in the list */
        {0x40, 0, 0, 0, 20, 0, 0, 0, 4, 9, 2}, {0x80, 2, 0, 0, 30, 0, 0, 0, 4, 20, 2},
        {0, 2, 0, 0, 30, 0, 1, 0, 4, 20, 2, 1, 1, 1, 1}, {0, 0x12, 0, 0, 30, 0, 0, 0, 4, 20, 2}, {0xc0, 0, 0, 0, 9, 0, 0, 0, 4, 5, 2}};
    uint32_t i;
    for (i = 0; i < HLSNAP_COUNT(rows); i++) seed_bytes(rows[i], sizeof(rows[0]));
}

/* Each operation on the good layout, on one with each edit, and with documents of the input's own. */
static void seeds_dir(void) {
    static const char nested[] = "{\"schemaVersion\":2,\"manifests\":[{\"mediaType\":\"a/b+json\",\"digest\":\"$n0\",\"size\":$N0},{\"mediaType\":\"" MANIFEST_TYPE
                                 "\",\"digest\":\"$a0\",\"size\":$A0,\"annotations\":{\"" HLSNAP__OCI_REF_NAME "\":\"v1\"}}]}";
    uint8_t row[600];
    uint32_t i, k;
    for (i = 0; i < 12; i++) {
        uint8_t plain[] = {(uint8_t)(8 * i), 3, (uint8_t)i, 0, (uint8_t)i, 12, 7, 1, 0, 0};
        seed_bytes(plain, sizeof(plain));
        for (k = 0; k < 12; k++) {
            const uint8_t kind = (uint8_t)((k + i) % 12);
            uint8_t edited[] = {2, 2, kind, (uint8_t)(k * 3 + i), (uint8_t)(k + 2), 0, kind == 11 ? 2 : 0, (uint8_t)(i + 13), 0, 0, (uint8_t)i, (uint8_t)(k * 5), 7, 0, 0, 0};
            seed_bytes(edited, sizeof(edited));
        }
        memset(row, 0, sizeof(row));
        row[0] = 1, row[1] = 2, row[2] = 1, row[3] = 1;
        row[4] = (uint8_t)(sizeof(nested) - 1), row[5] = (uint8_t)((sizeof(nested) - 1) >> 8);
        memcpy(row + 6, nested, sizeof(nested) - 1);
        row[6 + sizeof(nested) - 1] = (uint8_t)i;
        row[6 + sizeof(nested)] = (uint8_t)(i * 7);
        seed_bytes(row, 6 + sizeof(nested) + 6);
    }
}

/* A small position independent ELF with one of everything; file offset = address. */
enum { E_SYMS = 0x400, E_STRS = 0x500, E_RELA = 0x700, E_JMPREL = 0x640, E_RELR = 0x660, E_NOTES = 0x680, E_TEXT = 0x1000, E_RW = 0x2000, E_END = 0x2200 };
static void elf_put(uint8_t *p, uint64_t at, const uint64_t *words, uint32_t n) { memcpy(p + at, words, n * 8ull); }
#define WORDS(at, ...) do { const uint64_t w_[] = {__VA_ARGS__}; elf_put(p, at, w_, (uint32_t)HLSNAP_COUNT(w_)); } while (0)
#define SEGMENT(i, type, flags, at, filesz, memsz, align) WORDS(64 + 56 * (i), (type) | (uint64_t)(flags) << 32, at, at, 0, filesz, memsz, align)
#define INFO(sym, type) ((uint64_t)(sym) << 32 | (type))
static void elf_make(uint8_t *p, uint32_t type, bool program, bool lacks) {
    static const char strings[] = "\0f\0weak\0tls\0errno\0gone\0gone2", ident[] = {0x7f, 'E', 'L', 'F', 2, 1, 1};
    static const uint32_t notes[] = {4, 8, 3, 0x554e47, 0xdeadbeef, 0x12345678, 7, 4, 1, 0x6e736c68, 0x7061, HLSNAP_ABI_VERSION,
                                     7, 16, 2, 0x6e736c68, 0x7061, E_TEXT + 32 - E_NOTES - 68, 0, E_TEXT + 48 - E_NOTES - 76, 0};
    const uint64_t notes_size = program ? sizeof(notes) : 48;
    const uint64_t base = type == ET_EXEC ? 0x200000 : 0;
    memset(p, 0, E_END);
    memcpy(p, ident, sizeof(ident));
    WORDS(16, type | EM_X86_64 << 16 | 1ull << 32, base + E_TEXT, 64, 0, 64ull << 32 | 56ull << 48, 8 | 64 << 16);
    SEGMENT(0, PT_LOAD, PF_R, base, 0x900, 0x900, 4096);
    SEGMENT(1, PT_LOAD, PF_R | PF_X, base + E_TEXT, 0x100, 0x100, 4096);
    SEGMENT(2, PT_LOAD, PF_R | PF_W, base + E_RW, 0x200, 0x3000, 4096);
    SEGMENT(3, PT_DYNAMIC, PF_R, base + E_RW, 0xb0, 0xb0, 8);
    SEGMENT(4, PT_GNU_RELRO, PF_R, base + E_RW, 0x1000, 0x1000, 1);
    SEGMENT(5, PT_TLS, PF_R, base + E_RW + 0x100, 16, 40, 32);
    SEGMENT(6, PT_NOTE, PF_R, base + E_NOTES, notes_size, notes_size, 4);
    SEGMENT(7, PT_GNU_STACK, PF_R | PF_W, 0, 0, 0, 16);
    for (uint32_t i = 0; i < 7; i++) hlsnap__put64(p + 64 + 56 * i + 8, hlsnap__get64(p + 64 + 56 * i + 16) - base); /* p_offset */
    memcpy(p + E_STRS, strings, sizeof(strings));
    memcpy(p + E_NOTES, notes, notes_size);
    WORDS(E_SYMS + 24, 1 | 0x12ull << 32 | 2ull << 48, base + E_TEXT + 16, 0, 3 | 0x22ull << 32, 0, 0, 8 | 0x16ull << 32 | 3ull << 48, 8, 0,
          1 | 0x10ull << 32 | 0xfff1ull << 48, 0x1234, 0, 12 | 0x16ull << 32, 0, 0, 18 | 0x12ull << 32, 0, 0, 23 | 0x10ull << 32, 0, 0);
    WORDS(E_RELA, base + E_RW + 0x180, INFO(0, R_X86_64_RELATIVE), E_TEXT, base + E_RW + 0x188, INFO(1, R_X86_64_64), 4, base + E_RW + 0x190,
          INFO(1, R_X86_64_GLOB_DAT), 0, base + E_RW + 0x198, INFO(2, R_X86_64_64), 0, base + E_RW + 0x1a0, INFO(4, R_X86_64_64), 1,
          base + E_RW + 0x1a8, INFO(3, R_X86_64_TPOFF64), 2, base + E_RW + 0x1b0, INFO(3, R_X86_64_DTPMOD64), 0, base + E_RW + 0x1b8,
          INFO(3, R_X86_64_DTPOFF64), 3, 0, INFO(0, R_X86_64_NONE), 0, base + E_RW + 0x1d8, INFO(5, R_X86_64_TPOFF64), 0,
          base + E_RW + 0x1e0, INFO(7, R_X86_64_GLOB_DAT), 0, base + E_RW + 0x1e8, INFO(6, R_X86_64_64), 0);
    WORDS(E_JMPREL, base + E_RW + 0x1c0, INFO(1, R_X86_64_JUMP_SLOT), 9);
    WORDS(E_RELR, base + E_RW + 0x1c8, 1 | 1 << 1 | 1 << 3);
    WORDS(E_RW, DT_RELA, base + E_RELA, DT_RELASZ, (lacks ? 12u : 9u) * 24, DT_JMPREL, base + E_JMPREL, DT_PLTRELSZ, 24, DT_SYMTAB, base + E_SYMS, DT_STRTAB,
          base + E_STRS, DT_STRSZ, sizeof(strings), HLSNAP__DT_RELR, base + E_RELR, HLSNAP__DT_RELRSZ, 16, DT_DEBUG, 0, DT_NULL, 0);
    memcpy(p + E_RW + 0x100, "thread-template!", 16);
    memset(p + E_TEXT, 0xcc, 0x100);
}

static void seeds_elf(void) {
    static uint8_t image[E_END];
    for (uint32_t i = 0; i < 6; i++) {
        elf_make(image, i % 2 ? ET_EXEC : ET_DYN, i / 2 == 1, i / 2 == 2);
        seed_bytes(image, sizeof(image));
    }
}

static void seeds_boot(void) {
    static uint8_t row[1500];
    hlsnap_value v[8];
    uint32_t n;
    static const char imports[] = "\0\0\0\0\0\0h_str\nstr(str)\n\0", entry[] = "\0\0\1\20\0\0\0\0\0\0\0\1\0\0a\nvoid()\n\0";
    static const char list[] = "\0\0\0\2\0\0one\ni32(i32,str)\ntwo\nbytes(bool,i32,u32,i64,u64,f32,f64,str,bytes)\nh_i32\ni32(i32)\n\0";
    seed_bytes(list, sizeof(list) - 1);
    seed_bytes(imports, sizeof(imports) - 1);
    seed_bytes(entry, sizeof(entry) - 1);
    for (n = 0; n < 8; n++) v[n] = hlsnap_str(n % 2 ? "void()" : n == 0 ? "a" : n == 2 ? "b" : n == 4 ? "h_i32" : "hook");
    v[5] = hlsnap_str("i32(i32)");
    memset(row, 0, 6);
    row[3] = 2, row[5] = 1;
    n = fake_encode(row + 6, 0, 0, v, 8);
    row[6 + n] = 0;
    seed_bytes(row, n + 7);
    row[6 + n] = 1; /* a change after the first look */
    memcpy(row + 7 + n - 1, "\0\x80\1\0\0\0\0\0\0\0\1", 11);
    seed_bytes(row, n + 17);
    memmove(row + 64, row, 300);
    memset(row, 0, 64);
    row[0] = 1, row[1] = 1; /* a log line first */
    v[0] = hlsnap_i32(1);
    v[1] = hlsnap_str("from init");
    n = fake_encode(row + 9, HLSNAP_ABI_FN_LOG, 0, v, 2);
    row[6] = (uint8_t)n;
    memcpy(row + 9 + n, list, sizeof(list));
    seed_bytes(row, 9 + n + sizeof(list) - 1);
}

/* A step of the script that sends one message. */
static size_t step_put(uint8_t *to, uint8_t kind, uint32_t function, uint32_t status, const hlsnap_value *v, uint32_t num) {
    const uint32_t n = fake_encode(to + 8, function, status, v, num);
    memset(to, 0, 8);
    to[0] = kind;
    to[5] = (uint8_t)n;
    to[6] = (uint8_t)(n >> 8);
    return n + 8;
}

static void seeds_host(void) {
    static uint8_t row[4096];
    hlsnap_value v[HLSNAP_MAX_ARGS];
    uint32_t i;
    size_t n;
    for (i = 0; i < HLSNAP_COUNT(fake_exports); i++) { /* what an honest guest answers, and a failure */
        hlsnap__signature sig;
        hlsnap__signature_parse(&sig, fake_exports[i].signature, strlen(fake_exports[i].signature));
        v[0] = hlsnap__value((hlsnap_type)sig.result);
        if (sig.result == HLSNAP_STR) v[0] = hlsnap_str("result");
        if (sig.result == HLSNAP_BYTES) v[0] = hlsnap_bytes("result", 6);
        row[0] = 0, row[1] = (uint8_t)i;
        n = 2 + step_put(row + 2, 0, i, 0, v, sig.result != HLSNAP_VOID);
        row[n] = 0;
        seed_bytes(row, n + 1);
        memcpy(row + n, "\10\x80\377\377\377\377\0\0\0\0\10\x80\7\0\0\0\0\0\0\0\2", 21);
        seed_bytes(row, n + 21);
    }
    v[0] = hlsnap_i32(7);
    v[1] = hlsnap_str("why\x1b[2J");
    for (i = 0; i < 3; i++) {
        n = 2 + step_put(row + 2, 0, 1, i, v, 2);
        row[0] = 0, row[1] = 1;
        row[n] = 0;
        seed_bytes(row, n + 1);
    }
    for (i = 0; i < NUM_IMPORTS + 2; i++) { /* each request, then a result */
        uint32_t function = i < NUM_IMPORTS ? i : HLSNAP_ABI_FN_LOG + i - NUM_IMPORTS, num = 2;
        if (i < NUM_IMPORTS) num = (uint32_t)sample_args(fake_imports[i].signature, v);
        row[0] = 0, row[1] = 1;
        n = 2 + step_put(row + 2, 1, function, 0, v, num);
        v[0] = hlsnap_i32(3);
        v[1] = hlsnap_str("text");
        n += step_put(row + n, 0, 1, 0, v, 1);
        row[n] = 0;
        seed_bytes(row, n + 1);
    }
    for (i = 0; i < 4; i++) { /* where a map is, which may not be there */
        v[0] = hlsnap_i32(0);
        v[1] = hlsnap_str(i < 3 ? box_maps[i].name : "models");
        row[0] = 0, row[1] = 1;
        n = 2 + step_put(row + 2, 1, HLSNAP_ABI_FN_MAP, 0, v, 2);
        v[0] = hlsnap_i32(3);
        n += step_put(row + n, 0, 1, 0, v, 1);
        row[n] = 0;
        seed_bytes(row, n + 1);
    }
    v[0] = hlsnap_i32(3);
    row[0] = 2, row[1] = 1, row[2] = 1, row[3] = 2; /* three at once */
    for (i = 0, n = 4; i < 3; i++) n += fake_encode(row + n + 8 * !i, 1, 0, v, 1) + 8u * !i;
    memset(row + 4, 0, 8);
    row[9] = 96;
    row[n] = 0;
    seed_bytes(row, n + 1);
    for (i = 4; i < 8; i++) seed_bytes((uint8_t[]){0, 1, (uint8_t)(i | 0x70), 0x40, 0, 0x10, 0, 0, 0, 0, 0}, 11);
}

static void seeds_guest(void) {
    static uint8_t row[4096];
    hlsnap_value v[HLSNAP_MAX_ARGS], answer[2];
    uint32_t i, k, n;
    for (i = 0; i < HLSNAP_COUNT(guest_exports); i++)
        for (k = 0; k < 4; k++) {
            uint32_t num = (uint32_t)sample_args(guest_exports[i].signature, v);
            n = fake_encode(row + 3, i, 0, v, num);
            row[0] = 1, row[1] = (uint8_t)(n / 8), row[2] = 0;
            answer[0] = v[0];
            answer[1] = hlsnap_str("because");
            if (k) answer[0] = hlsnap_i32(k == 3 ? HLSNAP_ERR_LIMIT : 5);
            num = k ? 2 : i != 3;
            row[3 + n] = 0;
            row[3 + n] = (uint8_t)(fake_encode(row + 4 + n, i, k == 3 ? 2 : k, answer, num) / 8);
            seed_bytes(row, 4 + n + row[3 + n] * 8u);
        }
    n = fake_encode(row + 3, HLSNAP_COUNT(guest_exports) - 1, 0, v, (uint32_t)sample_args("u64(str)", v)); /* where a map is */
    row[0] = 1, row[1] = (uint8_t)(n / 8), row[2] = 0;
    answer[0] = hlsnap_u64(MAP_AREA);
    answer[1] = hlsnap_u64(12345);
    row[3 + n] = (uint8_t)(fake_encode(row + 4 + n, HLSNAP_ABI_FN_MAP, 0, answer, 2) / 8);
    seed_bytes(row, 4 + n + row[3 + n] * 8u);
    for (k = 0; k < 3; k++) { /* a response of its own room: of bytes that it has, of more than fit the mailbox, of more than there are */
        n = fake_encode(row + 3, 2, 0, v, (uint32_t)sample_args(guest_exports[2].signature, v));
        row[0] = 1, row[1] = (uint8_t)(n / 8), row[2] = 0;
        answer[0] = hlsnap_u64(k == 0 ? 64 : k == 1 ? 80000 : 1ull << 40);
        row[3 + n] = (uint8_t)(fake_encode(row + 4 + n, 2, HLSNAP_ABI_STATUS_LARGE, answer, 1) / 8);
        n += 4 + row[3 + n] * 8u;
        answer[0] = hlsnap_bytes("1234567", 7);
        row[n] = (uint8_t)(fake_encode(row + n + 1, 2, 0, answer, 1) / 8);
        if (k == 1) { /* zeros follow */
            const uint32_t size = 80000, bytes = size - 48;
            memcpy(row + n + 1, &size, 4);
            memcpy(row + n + 1 + sizeof(hlsnap_abi_message) + 4, &bytes, 4);
        }
        seed_bytes(row, n + 1 + row[n] * 8u);
    }
    for (i = 0, n = 3; i < 3; i++) { /* several */
        v[0] = hlsnap_i32((int32_t)i);
        n += fake_encode(row + n, 6, 0, v, 1);
    }
    row[0] = 3, row[1] = (uint8_t)((n - 3) / 8), row[2] = 0;
    seed_bytes(row, n);
}

/* ---- the targets ---- */

enum { ANY_BYTES, JSON_TEXT, ELF_FILE, WORDS_OF };
static const struct target { const char *name; void (*run)(const uint8_t *p, size_t n); void (*seeds)(void); int kind; void (*make)(void); } targets[] = {
    {"layout", fuzz_layout, seeds_layout, JSON_TEXT, layout_make}, {"index", fuzz_index, seeds_index, JSON_TEXT, layout_make},
    {"manifest", fuzz_manifest, seeds_manifest, JSON_TEXT, layout_make}, {"config", fuzz_config, seeds_config, JSON_TEXT, layout_make},
    {"chunks", fuzz_chunks, seeds_chunks, ANY_BYTES, layout_make}, {"dir", fuzz_dir, seeds_dir, ANY_BYTES, layout_make},
    {"elf", fuzz_elf, seeds_elf, ELF_FILE, NULL}, {"boot", fuzz_boot, seeds_boot, WORDS_OF, box_make},
    {"host", fuzz_host, seeds_host, WORDS_OF, box_make}, {"guest", fuzz_guest, seeds_guest, WORDS_OF, native_make}};
static const struct target *target;

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerInitialize(int *argc, char ***argv) {
    const char *name = getenv("FUZZ_TARGET");
    size_t i;
    for (i = 0; i < HLSNAP_COUNT(targets); i++)
        if (name && strcmp(targets[i].name, name) == 0) target = &targets[i];
    if (!target) {
        fprintf(stderr, "FUZZ_TARGET is none of:");
        for (i = 0; i < HLSNAP_COUNT(targets); i++) fprintf(stderr, " %s", targets[i].name);
        fprintf(stderr, "\n");
        exit(2);
    }
    sha = hlsnap__sha256_pick(hlsnap__cpu_features());
    atexit(layout_remove);
    if (target->make != box_make) fake_reset();
    if (target->make) target->make();
    if (*argc < 3 || strcmp((*argv)[1], "--seeds") != 0) return 0;
    seed_dir = open((*argv)[2], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    MUST(seed_dir >= 0);
    target->seeds();
    exit(0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    begin();
    target->run(data, size);
    end();
    return 0;
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max, unsigned seed);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max, unsigned seed) {
    mutate_state = seed;
    switch (target->kind) {
    case JSON_TEXT: return json_mutate(data, size, max);
    case ELF_FILE: return elf_mutate(data, size, max);
    case WORDS_OF: return words_mutate(data, size, max);
    default: return LLVMFuzzerMutate(data, size, max);
    }
}

/* test_map_store.c - maps in layouts, on the fake hypervisor: what is stored of them, once; what is demanded by a snapshot that was
   loaded; what failing allocations leave. Kills and failing system calls are in test_crash.c, what a config may say of maps in
   test_oci.c, maps without a layout in test_maps.c.
   cc:  cc -std=gnu11 -I.. test_map_store.c -lcjson -o test_map_store
   run: ./test_map_store [name]      works in a directory of its own under $TMPDIR or /tmp */
#define HLSNAP_IMPLEMENTATION
#include "fake.h"
#include "hlsnap_oci.h"
#include "guest_fake.h"
#include "test.h"
#include "maps_fake.h"
#include <dirent.h>
#include <sys/wait.h>

#define P 4096ull

/* ---- files ---- */

static char home[200];
static const char *path_of(const char *name) { /* good for the next seven calls */
    static char path[8][240];
    static int next;
    char *to = path[next++ % 8];
    snprintf(to, sizeof(path[0]), "%s/%s", home, name);
    return to;
}
static const char *fresh(void) { /* a new layout's directory */
    static char path[40][240];
    static int next;
    char *to = path[next % 40];
    snprintf(to, sizeof(path[0]), "%s/l%d", home, next++);
    return to;
}

/* Byte i of a file that was made from a seed: no page is another's, none is zero. */
static uint8_t byte_of(uint64_t i, uint32_t seed) { return (uint8_t)(1 + (i / P * 7 + i % 251 + 13 * seed) % 255); }
static uint64_t file_word(uint64_t at, uint32_t seed) {
    uint8_t b[8];
    int i;
    for (i = 0; i < 8; i++) b[i] = byte_of(at + (uint64_t)i, seed);
    return hlsnap__get64(b);
}
static const char *file_of(const char *name, uint64_t size, uint32_t seed) {
    const char *path = path_of(name);
    FILE *f = fopen(path, "w");
    uint64_t i;
    for (i = 0; i < size; i++) fputc(byte_of(i, seed), f);
    fclose(f);
    return path;
}

static hlsnap_map captured_of(const char *name, hlsnap_map_mode mode, const char *path) {
    hlsnap_map map = map_of(name, mode, path);
    map.capture = true;
    return map;
}

/* ---- what lies in a layout ---- */

/* Blobs of that many pages. */
static int blobs_of(const char *dir, uint64_t pages) {
    const struct dirent *e;
    struct stat st;
    char path[300];
    int num = 0;
    DIR *d;
    snprintf(path, sizeof(path), "%s/blobs/sha256", dir);
    d = opendir(path);
    if (!d) return 0;
    while ((e = readdir(d)) != NULL)
        num += fstatat(dirfd(d), e->d_name, &st, 0) == 0 && S_ISREG(st.st_mode) && (uint64_t)st.st_size == pages * P;
    closedir(d);
    return num;
}

typedef struct layers_seen { uint32_t num; hlsnap_oci_layer of[40]; } layers_seen;
static bool see_layer(const hlsnap_oci_layer *layer, void *user) {
    layers_seen *seen = (layers_seen *)user;
    if (seen->num < HLSNAP_COUNT(seen->of)) seen->of[seen->num++] = *layer;
    return true;
}
/* Layers of that many pages that a tag's snapshot has; all with 0. */
static uint32_t layers_of(const char *dir, const char *tag, uint64_t pages) {
    static layers_seen seen;
    uint32_t i, num = 0;
    seen.num = 0;
    CHECK_EQ(hlsnap_oci_layers(dir, tag, see_layer, &seen, &err), HLSNAP_OK);
    for (i = 0; i < seen.num; i++) num += !pages || seen.of[i].pages == pages;
    return num;
}

/* ---- sandboxes and snapshots ---- */

static hlsnap_sandbox *with(const hlsnap_map *maps, size_t num) { return guest_with(fake_guest(GUEST_FEW, 64), maps, num); }
static void poke(hlsnap_sandbox *sb, uint64_t gva, uint64_t v) {
    CHECK_EQ(hlsnap_sandbox_call(sb, "poke", HLSNAP_ARGS(hlsnap_u64(gva), hlsnap_bytes(&v, 8)), NULL, &err), HLSNAP_OK);
}
static void save(const char *dir, const char *tag, hlsnap_snapshot *s) {
    if (!CHECK_EQ(hlsnap_oci_save(dir, tag, s, NULL, NULL, &err), HLSNAP_OK)) printf("# %s: %s\n", tag, err.msg);
}
static hlsnap_snapshot *load_with(const char *dir, const char *tag, const hlsnap_oci_desc *desc) {
    hlsnap_snapshot *s = NULL;
    if (!CHECK_EQ(hlsnap_oci_load(dir, tag, desc, &s, NULL, &err), HLSNAP_OK)) printf("# %s: %s\n", tag, err.msg);
    return s;
}
static hlsnap_snapshot *load(const char *dir, const char *tag) { return load_with(dir, tag, NULL); }
static void save_taken(const char *dir, const char *tag, hlsnap_sandbox *sb) {
    hlsnap_snapshot *s = take(sb);
    save(dir, tag, s);
    hlsnap_snapshot_release(s);
}

static void begin(void) { fake_reset(); }
static void end(void) {
    CHECK_EQ(inject.live, 0);
    CHECK_EQ(inject.maps, 0);
    CHECK_EQ(hv.shells, 0);
    CHECK_EQ(hv.bad, 0);
}

/* ---- captured maps: stored once ---- */

#define BIG 64u

static void captured_once(void) {
    const char *dir = fresh(), *path = file_of("big", BIG * P - 100, 1);
    const hlsnap_map map = captured_of("big", HLSNAP_MAP_READ, path);
    hlsnap_sandbox *sb, *other;
    hlsnap_snapshot *s;
    uint64_t at, heap;
    uint32_t i;
    char tag[8];
    begin();
    sb = with(&map, 1);
    at = found(sb, "big");
    heap = region_gva(sb, HLSNAP__HEAP);
    for (i = 0; i < 4; i++) { /* of one line, each with a page more */
        snprintf(tag, sizeof(tag), "v%u", i);
        poke(sb, heap + i * P, i + 1);
        save_taken(dir, tag, sb);
        CHECK_EQ(blobs_of(dir, BIG), 1);
        CHECK_EQ(layers_of(dir, tag, BIG), 1);
    }
    other = with(&map, 1); /* nothing of the first one's: it has read the file for itself */
    CHECK(other->memory.maps[0].layer != sb->memory.maps[0].layer);
    poke(other, heap, 77);
    save_taken(dir, "other", other);
    CHECK_EQ(blobs_of(dir, BIG), 1);
    hlsnap_sandbox_destroy(other);
    s = load(dir, "v2"); /* what was loaded knows where it lies */
    CHECK_EQ(from(s, NULL, 0, &other), HLSNAP_OK);
    poke(other, heap + 9 * P, 9);
    save_taken(dir, "next", other);
    CHECK_EQ(blobs_of(dir, BIG), 1);
    CHECK(peek(other, at + (BIG - 1) * P) == file_word((BIG - 1) * P, 1) && peek(other, heap + 2 * P) == 3 && peek(other, heap + 3 * P) == 0);
    hlsnap_snapshot_release(s);
    hlsnap_sandbox_destroy(other);
    hlsnap_sandbox_destroy(sb);
    CHECK_EQ(hlsnap_oci_fsck(dir, false, &err), HLSNAP_OK);
    end();
}


/* What is left of a captured map's blob, as its snapshots go and come: copies, tags that are taken away, collections. */
static void captured_stays_while_needed(void) {
    const char *dir = fresh(), *other = fresh(), *path = file_of("big", BIG * P, 2);
    const hlsnap_map map = captured_of("big", HLSNAP_MAP_PRIVATE, path);
    hlsnap_snapshot *s;
    hlsnap_sandbox *sb;
    uint64_t at, freed = 0;
    begin();
    sb = with(&map, 1);
    at = found(sb, "big");
    save_taken(dir, "v0", sb);
    poke(sb, at + 3 * P, 5);
    save_taken(dir, "v1", sb);
    CHECK_EQ(hlsnap_oci_copy(dir, "v1", other, "v1", NULL, NULL, &err), HLSNAP_OK);
    CHECK_EQ(hlsnap_oci_copy(dir, "v0", other, "v0", NULL, NULL, &err), HLSNAP_OK);
    CHECK_EQ(blobs_of(other, BIG), 1);
    CHECK_EQ(hlsnap_oci_flatten(other, "v1", "flat", NULL, NULL, &err), HLSNAP_OK); /* all but the map in one layer */
    CHECK_EQ(layers_of(other, "flat", 0), 2);
    CHECK_EQ(layers_of(other, "flat", BIG), 1);
    CHECK_EQ(hlsnap_oci_untag(other, "v0", &err), HLSNAP_OK);
    CHECK_EQ(hlsnap_oci_untag(other, "v1", &err), HLSNAP_OK);
    CHECK_EQ(hlsnap_oci_gc(other, 0, &freed, &err), HLSNAP_OK);
    CHECK(freed && freed < BIG * P);
    CHECK_EQ(blobs_of(other, BIG), 1);
    s = load(other, "flat");
    restore(sb, s);
    CHECK(peek(sb, at + 3 * P) == 5 && peek(sb, at + 4 * P) == file_word(4 * P, 2));
    hlsnap_snapshot_release(s);
    CHECK_EQ(hlsnap_oci_untag(dir, "v0", &err), HLSNAP_OK);
    CHECK_EQ(hlsnap_oci_gc(dir, 0, &freed, &err), HLSNAP_OK);
    CHECK_EQ(blobs_of(dir, BIG), 1);
    CHECK_EQ(hlsnap_oci_untag(dir, "v1", &err), HLSNAP_OK);
    CHECK_EQ(hlsnap_oci_gc(dir, 0, &freed, &err), HLSNAP_OK);
    CHECK_EQ(blobs_of(dir, BIG), 0);
    CHECK(freed >= BIG * P);
    save_taken(dir, "again", sb); /* its blob is gone, which the layer still has a note of */
    CHECK_EQ(blobs_of(dir, BIG), 1);
    s = load(dir, "again");
    restore(sb, s);
    CHECK(peek(sb, at + 3 * P) == 5 && peek(sb, at + 63 * P) == file_word(63 * P, 2));
    hlsnap_snapshot_release(s);
    hlsnap_sandbox_destroy(sb);
    CHECK_EQ(hlsnap_oci_fsck(dir, false, &err), HLSNAP_OK);
    CHECK_EQ(hlsnap_oci_fsck(other, false, &err), HLSNAP_OK);
    end();
}

/* The same content under two names, and in two modes: one blob, whoever captured it. */
static void one_file_two_names(void) {
    const char *dir = fresh(), *other = fresh(), *path = file_of("big", BIG * P, 3);
    hlsnap_map map[3];
    hlsnap_oci_info info;
    hlsnap_sandbox *sb, *again = NULL;
    hlsnap_snapshot *s;
    uint64_t at[3];
    int i;
    begin();
    map[0] = captured_of("a", HLSNAP_MAP_READ, path);
    map[1] = captured_of("b", HLSNAP_MAP_PRIVATE, path);
    map[2] = captured_of("c", HLSNAP_MAP_READ, path);
    sb = with(map, 3);
    poke(sb, found(sb, "b") + P, 8);
    save_taken(dir, "v1", sb);
    CHECK_EQ(blobs_of(dir, BIG), 1);
    CHECK_EQ(layers_of(dir, "v1", 3 * BIG), 0);
    CHECK_EQ(hlsnap_oci_get_info(dir, "v1", &info, &err), HLSNAP_OK);
    CHECK(info.bytes < 2 * BIG * P);
    poke(sb, found(sb, "b") + 2 * P, 9);
    save_taken(dir, "v2", sb);
    CHECK_EQ(blobs_of(dir, BIG), 1);
    CHECK_EQ(hlsnap_oci_copy(dir, "v2", other, "v2", NULL, NULL, &err), HLSNAP_OK);
    CHECK_EQ(blobs_of(other, BIG), 1);
    CHECK_EQ(hlsnap_oci_flatten(other, "v2", "flat", NULL, NULL, &err), HLSNAP_OK);
    CHECK_EQ(blobs_of(other, BIG), 1);
    for (i = 0; i < 3; i++) {
        s = load(i == 0 ? dir : other, i == 2 ? "flat" : "v2");
        CHECK_EQ(from(s, NULL, 0, &again), HLSNAP_OK);
        at[0] = found(again, "a"), at[1] = found(again, "b"), at[2] = found(again, "c");
        CHECK(at[0] == found(sb, "a") && at[1] == found(sb, "b") && at[2] == found(sb, "c"));
        CHECK(peek(again, at[0] + P) == file_word(P, 3) && peek(again, at[2] + 63 * P) == file_word(63 * P, 3));
        CHECK(peek(again, at[1]) == file_word(0, 3) && peek(again, at[1] + P) == 8 && peek(again, at[1] + 2 * P) == 9);
        hlsnap_sandbox_destroy(again);
        hlsnap_snapshot_release(s);
    }
    CHECK_EQ(hlsnap_oci_fsck(dir, false, &err), HLSNAP_OK);
    CHECK_EQ(hlsnap_oci_fsck(other, false, &err), HLSNAP_OK);
    hlsnap_sandbox_destroy(sb);
    end();
}

/* While one save is under way another one stores the same map; then the first is cancelled, which takes nothing of the other's. */
static const char *beside_dir;
static hlsnap_snapshot *beside;
static bool save_beside(uint64_t done, uint64_t total, void *user) {
    (void)total, (void)user;
    if (done <= BIG * P) return true; /* the map is written first */
    save(beside_dir, "beside", beside);
    return false;
}
static void cancelled_beside_another(void) {
    const char *dir = beside_dir = fresh(), *path = file_of("big", BIG * P, 13);
    const hlsnap_map map = captured_of("big", HLSNAP_MAP_READ, path);
    hlsnap_oci_desc desc = HLSNAP_ZERO;
    hlsnap_sandbox *sb, *other;
    hlsnap_snapshot *s;
    begin();
    sb = with(&map, 1);
    other = with(&map, 1);
    poke(other, region_gva(other, HLSNAP__HEAP), 1);
    beside = take(other);
    s = take(sb);
    desc.progress = save_beside;
    CHECK_EQ(hlsnap_oci_save(dir, "v1", s, &desc, NULL, &err), HLSNAP_ERR_CANCELLED);
    hlsnap_snapshot_release(s);
    hlsnap_snapshot_release(beside);
    s = load(dir, "beside");
    restore(sb, s);
    CHECK(peek(sb, found(sb, "big")) == file_word(0, 13) && peek(sb, region_gva(sb, HLSNAP__HEAP)) == 1);
    CHECK_EQ(blobs_of(dir, BIG), 1);
    CHECK_EQ(hlsnap_oci_fsck(dir, false, &err), HLSNAP_OK);
    hlsnap_snapshot_release(s);
    hlsnap_sandbox_destroy(sb);
    hlsnap_sandbox_destroy(other);
    end();
}

/* ---- pages that were changed ---- */

#define DEPTH 40u
typedef struct pages_model { uint64_t now[2][BIG]; } pages_model; /* the first word of each page: of the file's map, and of the captured one */

static void model_check(hlsnap_sandbox *sb, const pages_model *m) {
    uint32_t i, k, different = 0;
    uint64_t v;
    for (i = 0; i < 2; i++) {
        const uint64_t at = found(sb, i ? "mine" : "file");
        for (k = 0; k < BIG; k++) {
            CHECK_EQ(hlsnap_sandbox_read(sb, at + k * P, &v, 8, &err), HLSNAP_OK);
            different += v != m->now[i][k];
        }
    }
    CHECK_EQ(different, 0);
}

/* Three pages become other ones, or zeros. */
static void model_step(hlsnap_sandbox *sb, pages_model *m, uint32_t step) {
    static const uint8_t zeros[P];
    static uint64_t seed;
    uint32_t k;
    if (!step) seed = 7;
    for (k = 0; k < 3; k++) {
        uint64_t gva, *now;
        seed = seed * 6364136223846793005ull + 1442695040888963407ull;
        now = &m->now[seed >> 60 & 1][(seed >> 33) % (BIG - 1)];
        gva = found(sb, seed >> 60 & 1 ? "mine" : "file") + (seed >> 33) % (BIG - 1) * P;
        *now = seed >> 50 & 1 ? 1000 * step + k : 0;
        if (*now) poke(sb, gva, *now);
        else CHECK_EQ(hlsnap_sandbox_write(sb, gva, zeros, P, &err), HLSNAP_OK);
    }
}

static hlsnap_sandbox *started(const char *dir, const char *tag, const hlsnap_map *map) {
    hlsnap_snapshot *s = load(dir, tag);
    hlsnap_sandbox *sb = NULL;
    if (!CHECK_EQ(from(s, map, 1, &sb), HLSNAP_OK)) printf("# %s: %s\n", tag, err.msg);
    hlsnap_snapshot_release(s);
    return sb;
}
static void restored_and_checked(hlsnap_sandbox *sb, const char *dir, const char *tag, const pages_model *m) {
    hlsnap_snapshot *s = load(dir, tag);
    restore(sb, s);
    model_check(sb, m);
    hlsnap_snapshot_release(s);
    if (test_bad) printf("# %s\n", tag);
}

/* A chain, deeper than a manifest has layers: each snapshot has what was changed until then; the map's blob is the same all along. */
static void deltas_at_all_depths(void) {
    static pages_model now, was[DEPTH];
    const char *dir = fresh(), *path = file_of("big", BIG * P, 4);
    hlsnap_map map[2];
    hlsnap_sandbox *sb;
    uint32_t i;
    char tag[8];
    begin();
    map[0] = map_of("file", HLSNAP_MAP_PRIVATE, path);
    map[1] = captured_of("mine", HLSNAP_MAP_PRIVATE, path);
    sb = with(map, 2);
    for (i = 0; i < BIG; i++) now.now[0][i] = now.now[1][i] = file_word(i * P, 4);
    for (i = 0; i < DEPTH; i++) {
        model_step(sb, &now, i);
        was[i] = now;
        snprintf(tag, sizeof(tag), "v%u", i);
        save_taken(dir, tag, sb);
        if (i % 7 == 3) { /* it goes on in another sandbox, from what lies on the disk */
            hlsnap_sandbox_destroy(sb);
            sb = started(dir, tag, map);
        }
        CHECK_EQ(blobs_of(dir, BIG), 1);
        CHECK_EQ(layers_of(dir, tag, BIG), 1);
    }
    hlsnap_sandbox_destroy(sb);
    sb = started(dir, "v0", map);
    for (i = 0; i < DEPTH; i++) {
        snprintf(tag, sizeof(tag), "v%u", i * 11 % DEPTH);
        restored_and_checked(sb, dir, tag, &was[i * 11 % DEPTH]);
    }
    CHECK_EQ(hlsnap_oci_flatten(dir, "v39", "flat", NULL, NULL, &err), HLSNAP_OK);
    restored_and_checked(sb, dir, "flat", &was[DEPTH - 1]);
    hlsnap_sandbox_destroy(sb);
    CHECK_EQ(sh("mv %s %s.was", path, path), 0);
    CHECK_EQ(sh("cmp %s.was %s", path, file_of("big", BIG * P, 4)), 0); /* not a byte of it was written */
    CHECK_EQ(hlsnap_oci_fsck(dir, false, &err), HLSNAP_OK);
    end();
}

/* ---- what another process must give ---- */

/* Runs in a child, which has nothing of this process but the layout; false: a check failed there. */
static const char *child_dir;
static bool in_child(void (*run)(void)) {
    int status = 0;
    pid_t pid;
    fflush(stdout);
    pid = fork();
    if (pid == 0) {
        test_bad = 0;
        run();
        fflush(stdout);
        _exit(test_bad != 0);
    }
    return waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

#define DIGEST_A "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
#define DIGEST_B "sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
static uint8_t shared_page[4096] __attribute__((aligned(4096)));

static void demands(hlsnap_map map[5]) {
    map[0] = map_of("model", HLSNAP_MAP_READ, path_of("demanded"));
    map[0].digest = DIGEST_A;
    map[1] = map_of("index", HLSNAP_MAP_PRIVATE, path_of("demanded"));
    map[2] = map_of("ring", HLSNAP_MAP_SHARED, NULL);
    map[2].data = shared_page;
    map[2].size = sizeof(shared_page);
    map[3] = map_of("extra", HLSNAP_MAP_PRIVATE, path_of("demanded"));
    map[3].optional = true;
    map[4] = map_of("more", HLSNAP_MAP_READ, path_of("demanded"));
    map[4].size = 4 * P;
}

static void demanded_elsewhere(void) {
    hlsnap_snapshot *s = load(child_dir, "v1"), *t;
    hlsnap_sandbox *sb = NULL;
    hlsnap_map map[5], got;
    demands(map);
    CHECK(hlsnap_snapshot_map(s, 0, &got) && got.digest && strcmp(got.digest, DIGEST_A) == 0 && got.size == 8 * P - 1);
    CHECK_EQ(from(s, NULL, 0, &sb), HLSNAP_ERR_CONTRACT);
    CHECK(strstr(err.msg, "maps: model (read, 32767 bytes) is missing; index (private, 32767 bytes) is missing; "
                          "ring (shared, 4096 bytes) is missing; more (read, 16384 bytes) is missing"));
    map[0].digest = DIGEST_B; /* each is another in its own way */
    map[1].mode = HLSNAP_MAP_READ;
    map[2].name = "rings";
    map[3].size = 4 * P;      /* optional: may be missing, not different */
    map[4].size = 5 * P;
    CHECK_EQ(from(s, map, 5, &sb), HLSNAP_ERR_CONTRACT);
    CHECK(strstr(err.msg, "model has the digest sha256:bbbbbbbbbbbb, not sha256:aaaaaaaaaaaa; index is read of 32767 bytes, not private of 32767; "
                          "ring (shared, 4096 bytes) is missing; extra is private of 16384 bytes, not private of 32767; "
                          "more is read of 20480 bytes, not read of 16384"));
    demands(map);
    map[4].capture = true;
    CHECK_EQ(from(s, map, 5, &sb), HLSNAP_ERR_CONTRACT);
    CHECK(strstr(err.msg, "maps: more is captured read of 16384 bytes, not read of 16384"));
    CHECK(sb == NULL);
    demands(map);
    map[3] = map[4]; /* without the optional one, in another order */
    map[4] = map[0];
    map[0] = map[3];
    map[3] = map[4];
    CHECK_EQ(from(s, map, 4, &sb), HLSNAP_OK);
    CHECK_EQ(found(sb, "extra"), 0);
    CHECK(peek(sb, found(sb, "index")) == 3 && peek(sb, found(sb, "index") + P) == file_word(P, 5) && peek(sb, found(sb, "more") + P) == file_word(P, 5));
    save_taken(child_dir, "without", sb); /* it demands extra no more */
    t = load(child_dir, "without");
    demands(map);
    CHECK(hlsnap_snapshot_map(t, 3, &got) && strcmp(got.name, "more") == 0 && !hlsnap_snapshot_map(t, 4, &got));
    hlsnap_snapshot_release(t);
    hlsnap_sandbox_destroy(sb);
    CHECK_EQ(from(s, map, 5, &sb), HLSNAP_OK);
    CHECK(peek(sb, found(sb, "extra") + 2 * P) == 4 && peek(sb, found(sb, "extra")) == file_word(0, 5));
    hlsnap_sandbox_destroy(sb);
    hlsnap_snapshot_release(s);
}

static void demanded(void) {
    const char *dir = child_dir = fresh();
    hlsnap_map map[5];
    hlsnap_sandbox *sb;
    begin();
    file_of("demanded", 8 * P - 1, 5);
    demands(map);
    sb = with(map, 5);
    poke(sb, found(sb, "index"), 3);
    poke(sb, found(sb, "extra") + 2 * P, 4);
    save_taken(dir, "v1", sb);
    hlsnap_sandbox_destroy(sb);
    CHECK(in_child(demanded_elsewhere));
    CHECK_EQ(hlsnap_oci_fsck(dir, false, &err), HLSNAP_OK);
    end();
}

/* A map of the host's own lies where the snapshot has one: the snapshot's is at its address, the other makes way. */
static void addresses(void) {
    const char *dir = fresh();
    hlsnap_map a, b;
    hlsnap_sandbox *sb, *other = NULL;
    hlsnap_snapshot *s;
    uint64_t at;
    begin();
    a = map_of("a", HLSNAP_MAP_PRIVATE, file_of("a", 8 * P, 6));
    b = captured_of("b", HLSNAP_MAP_READ, file_of("b", 8 * P, 7));
    sb = with(&b, 1);
    CHECK_EQ(hlsnap_sandbox_map(sb, &a, &err), HLSNAP_OK);
    CHECK_EQ(hlsnap_sandbox_unmap(sb, "b", &err), HLSNAP_OK);
    at = found(sb, "a");
    CHECK(at > HLSNAP__MAPS_GVA);
    save_taken(dir, "v1", sb);
    hlsnap_sandbox_destroy(sb);
    sb = with(&a, 1);
    CHECK_EQ(found(sb, "a"), HLSNAP__MAPS_GVA);
    CHECK_EQ(hlsnap_sandbox_map(sb, &b, &err), HLSNAP_OK);
    CHECK_EQ(found(sb, "b"), at);
    s = load(dir, "v1");
    restore(sb, s);
    CHECK_EQ(found(sb, "a"), at);
    CHECK(found(sb, "b") && found(sb, "b") != at);
    CHECK(peek(sb, at) == file_word(0, 6) && peek(sb, found(sb, "b")) == file_word(0, 7));
    CHECK_EQ(from(s, &a, 1, &other), HLSNAP_OK);
    CHECK(found(other, "a") == at && found(other, "b") == 0);
    hlsnap_sandbox_destroy(other);
    hlsnap_sandbox_destroy(sb);
    hlsnap_snapshot_release(s);
    end();
}

/* More than an error has room for: it says how many are not named. */
static void demands_of_many(void) {
    static char names[HLSNAP_MAX_MAPS][64];
    const char *dir = fresh();
    hlsnap_map map[HLSNAP_MAX_MAPS];
    hlsnap_sandbox *sb, *other = NULL;
    hlsnap_snapshot *s;
    uint32_t i, named = 0, more = 0;
    const char *rest, *path = file_of("many", P, 8);
    begin();
    for (i = 0; i < HLSNAP_MAX_MAPS; i++) {
        memset(names[i], 'a' + (int)i, 63);
        map[i] = map_of(names[i], HLSNAP_MAP_READ, path);
    }
    sb = with(map, HLSNAP_MAX_MAPS);
    save_taken(dir, "v1", sb);
    hlsnap_sandbox_destroy(sb);
    s = load(dir, "v1");
    CHECK_EQ(from(s, NULL, 0, &other), HLSNAP_ERR_CONTRACT);
    for (i = 0; i < HLSNAP_MAX_MAPS; i++) named += strstr(err.msg, names[i]) != NULL;
    rest = strstr(err.msg, "; and ");
    if (!CHECK(named >= 3 && rest && sscanf(rest, "; and %u more", &more) == 1 && named + more == HLSNAP_MAX_MAPS)) printf("# %u: %s\n", named, err.msg);
    CHECK_EQ(from(s, map, HLSNAP_MAX_MAPS - 1, &other), HLSNAP_ERR_CONTRACT);
    CHECK(strstr(err.msg, "is missing") && !strstr(err.msg, "more"));
    CHECK_EQ(from(s, map, HLSNAP_MAX_MAPS, &other), HLSNAP_OK);
    hlsnap_sandbox_destroy(other);
    hlsnap_snapshot_release(s);
    end();
}

/* ---- guards, caches ---- */

static void captured_with_each_guard(void) {
    static const hlsnap_oci_guard guards[] = {HLSNAP_OCI_GUARD_NONE, HLSNAP_OCI_GUARD_DETECT, HLSNAP_OCI_GUARD_LEASE, HLSNAP_OCI_GUARD_PRIVATE};
    const char *dir = fresh(), *path = file_of("big", BIG * P, 9);
    const hlsnap_map map = captured_of("big", HLSNAP_MAP_PRIVATE, path);
    hlsnap_oci_desc desc = HLSNAP_ZERO;
    hlsnap_sandbox *sb, *other = NULL;
    hlsnap_snapshot *s;
    uint64_t at;
    uint32_t i;
    begin();
    sb = with(&map, 1);
    at = found(sb, "big");
    poke(sb, at + 5 * P, 1);
    save_taken(dir, "v1", sb);
    hlsnap_sandbox_destroy(sb);
    for (i = 0; i < 2 * HLSNAP_COUNT(guards); i++) {
        desc.guard = guards[i / 2];
        desc.verify_later = i % 2;
        s = load_with(dir, "v1", &desc);
        CHECK_EQ(from(s, NULL, 0, &other), HLSNAP_OK);
        CHECK(peek(other, at + 5 * P) == 1 && peek(other, at + 6 * P) == file_word(6 * P, 9));
        poke(other, at + 6 * P, 2);
        restore(other, s);
        CHECK(peek(other, at + 6 * P) == file_word(6 * P, 9));
        hlsnap_sandbox_destroy(other);
        hlsnap_snapshot_release(s);
    }
    CHECK_EQ(blobs_of(dir, BIG), 1);
    end();
}

/* A byte of the map that the guest has not changed, and one below a page that it has changed: a save elsewhere writes both. */
static void damaged_map(void) {
    const char *dir = fresh(), *path = file_of("big", BIG * P, 10);
    const hlsnap_map map = captured_of("big", HLSNAP_MAP_PRIVATE, path);
    hlsnap_sandbox *sb;
    hlsnap_snapshot *s = NULL;
    uint32_t i;
    begin();
    sb = with(&map, 1);
    poke(sb, found(sb, "big") + 5 * P, 1);
    for (i = 0; i < 2; i++) {
        save_taken(dir, "v1", sb);
        CHECK_EQ(sh("f=$(find %s/blobs -size 256k) && chmod u+w $f && printf x | dd of=$f bs=1 seek=%u conv=notrunc 2>/dev/null", dir, (i ? 5 : 9) * 4096 + 7), 0);
        CHECK_EQ(hlsnap_oci_load(dir, "v1", NULL, &s, NULL, &err), HLSNAP_ERR_DIGEST);
        CHECK(s == NULL);
        CHECK_EQ(hlsnap_oci_fsck(dir, false, &err), HLSNAP_ERR_DIGEST);
        save_taken(dir, "v1", sb); /* heals it */
        CHECK_EQ(hlsnap_oci_fsck(dir, false, &err), HLSNAP_OK);
    }
    hlsnap_sandbox_destroy(sb);
    end();
}

static void shared_by_a_cache(void) {
    const char *dir = fresh(), *path = file_of("big", BIG * P, 11);
    const hlsnap_map map = captured_of("big", HLSNAP_MAP_READ, path);
    hlsnap_oci_desc desc = HLSNAP_ZERO;
    hlsnap_oci_cache *cache = NULL;
    hlsnap_sandbox *sb, *other = NULL;
    hlsnap_snapshot *a, *b;
    uint64_t at;
    begin();
    sb = with(&map, 1);
    at = found(sb, "big");
    save_taken(dir, "v1", sb);
    poke(sb, region_gva(sb, HLSNAP__HEAP), 4);
    save_taken(dir, "v2", sb);
    hlsnap_sandbox_destroy(sb);
    CHECK_EQ(hlsnap_oci_cache_create(UINT64_MAX, &cache, &err), HLSNAP_OK);
    desc.cache = cache;
    a = load_with(dir, "v1", &desc);
    b = load_with(dir, "v2", &desc);
    CHECK(a->maps[0].layer && a->maps[0].layer == b->maps[0].layer);
    CHECK_EQ(from(a, NULL, 0, &other), HLSNAP_OK);
    restore(other, b);
    CHECK(peek(other, at + P) == file_word(P, 11) && peek(other, region_gva(other, HLSNAP__HEAP)) == 4);
    hlsnap_sandbox_destroy(other);
    hlsnap_snapshot_release(a);
    hlsnap_snapshot_release(b);
    hlsnap_oci_cache_destroy(cache);
    end();
}

/* ---- failing allocations ---- */

static const char *oom_dir, *oom_other;
static hlsnap_sandbox *oom_box;
static hlsnap_snapshot *oom_next, *oom_loaded;

static hlsnap_result oom_save(void) { return hlsnap_oci_save(oom_dir, "new", oom_next, NULL, NULL, &err); }
static hlsnap_result oom_save_first(void) {
    sh("rm -rf %s", oom_other);
    return hlsnap_oci_save(oom_other, "new", oom_next, NULL, NULL, &err);
}
static hlsnap_result oom_load(void) {
    hlsnap_snapshot *s;
    const hlsnap_result r = hlsnap_oci_load(oom_dir, "v1", NULL, &s, NULL, &err);
    hlsnap_snapshot_release(s);
    return r;
}
static hlsnap_result oom_start(void) {
    const hlsnap_map map = map_of("file", HLSNAP_MAP_PRIVATE, path_of("big"));
    hlsnap_sandbox *sb = NULL;
    const hlsnap_result r = from(oom_loaded, &map, 1, &sb);
    hlsnap_sandbox_destroy(sb);
    return r;
}
static hlsnap_result oom_flatten(void) { return hlsnap_oci_flatten(oom_dir, "v1", "flat", NULL, NULL, &err); }
static hlsnap_result oom_copy(void) {
    sh("rm -rf %s", oom_other);
    return hlsnap_oci_copy(oom_dir, "v1", oom_other, "v1", NULL, NULL, &err);
}
static hlsnap_result oom_gc(void) { return hlsnap_oci_gc(oom_dir, 0, NULL, &err); }

static void oom_loop(const char *name, hlsnap_result (*run)(void), long least, bool remembers) {
    balance was, is;
    long k;
    CHECK_EQ(run(), HLSNAP_OK); /* what a snapshot learns of its first start it has learned */
    was = balance_now();
    for (k = 0; k < 1000 && !test_bad; k++) {
        hlsnap_result r;
        inject_arm(k, -1);
        memset(&err, 0, sizeof(err));
        r = run();
        if (!CHECK(r == HLSNAP_OK || (r == HLSNAP_ERR_MEMORY && err.code == r))) printf("# %s, %ld: %s\n", name, k, err.msg);
        is = balance_now();
        if (!remembers) CHECK_EQ(is.live, was.live);
        CHECK_EQ(is.fds, was.fds);
        CHECK_EQ(is.memfds, was.memfds);
        CHECK_EQ(is.maps, was.maps);
        if (!inject_disarm()) break;
    }
    printf("# %s: %ld allocations failed\n", name, k);
    CHECK(k >= least && k < 1000);
    CHECK_EQ(hlsnap_oci_fsck(oom_dir, false, &err), HLSNAP_OK);
    CHECK(blobs_of(oom_dir, BIG) == 1);
}

static void failing_allocations(void) {
    hlsnap_map map[3];
    begin();
    oom_dir = fresh();
    oom_other = fresh();
    map[0] = map_of("file", HLSNAP_MAP_PRIVATE, file_of("big", BIG * P, 12));
    map[1] = captured_of("a", HLSNAP_MAP_READ, map[0].path);
    map[2] = captured_of("b", HLSNAP_MAP_PRIVATE, map[0].path);
    oom_box = with(map, 3);
    poke(oom_box, found(oom_box, "file") + P, 1);
    poke(oom_box, found(oom_box, "b") + P, 2);
    save_taken(oom_dir, "v1", oom_box);
    poke(oom_box, found(oom_box, "b"), 3);
    oom_next = take(oom_box);
    oom_loaded = load(oom_dir, "v1");
    oom_loop("load", oom_load, 20, false);
    oom_loop("start", oom_start, 10, false);
    oom_loop("save", oom_save, 10, true); /* a save leaves what layers remember */
    oom_loop("save into a new layout", oom_save_first, 11, true);
    oom_loop("flatten", oom_flatten, 30, false);
    oom_loop("copy", oom_copy, 15, false);
    oom_loop("gc", oom_gc, 10, false);
    hlsnap_snapshot_release(oom_next);
    hlsnap_snapshot_release(oom_loaded);
    hlsnap_sandbox_destroy(oom_box);
    end();
}

static const test_row tests[] = {
    TEST(captured_once), TEST(captured_stays_while_needed), TEST(one_file_two_names), TEST(cancelled_beside_another), TEST(deltas_at_all_depths), TEST(demanded), TEST(addresses),
    TEST(demands_of_many), TEST(captured_with_each_guard), TEST(damaged_map), TEST(shared_by_a_cache), TEST(failing_allocations)};
int main(int argc, char **argv) {
    const char *tmp = getenv("TMPDIR");
    int r;
    snprintf(home, sizeof(home), "%.150s/hlsnap-map-store.XXXXXX", tmp ? tmp : "/tmp");
    if (!mkdtemp(home)) return 1;
    r = (test_words = err.msg, TEST_MAIN(tests, argc, argv));
    sh("rm -rf %s", home);
    return r;
}

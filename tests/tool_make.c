/* tool_make.c - makes layouts for tests/tool.sh with a real guest, guest_kvm.elf: tag "base", and "delta", which changes pages of
   its heap: the 3rd to the 7th, one far behind, and the 20th, which becomes zero.

   tool_make LAYOUT GUEST_ELF

   Or with maps, of files in DIR with their names: `model`, READ, whose digest is given; `patch`, PRIVATE; `shared`; `extra`, READ and
   optional; `table`, READ, and `work`, PRIVATE, which are captured.
   Tag "one" has pages 1, 2 and 6 of `patch` changed, and page 0 of `work`. "two" is made of it: of `patch` pages 2, 4 and 10 to 299, of
   `work` page 0, and page 1, which becomes zero, and a page of the heap. "three", too: of `patch` the same, but for what pages 4 and 290
   become. "other" is another line: `model` has no digest, `patch` is captured, `shared` is optional, and `more`, READ, has the place of
   `extra`.

   tool_make LAYOUT GUEST_ELF DIR DIGEST */
#define HLSNAP_IMPLEMENTATION
#include "hlsnap.h"
#include "hlsnap_kvm.h"
#include "hlsnap_oci.h"
#include <stdio.h>
#include <string.h>

enum { BASE_PAGES = 96, FAR_PAGE = 3000 };

static hlsnap_result nothing(hlsnap_call *call, void *user) {
    (void)user;
    return hlsnap_call_fail(call, 1, "not here");
}

/* A host function for each import, of which the error of a start without any tells. */
static hlsnap_result start(const char *elf, const hlsnap_map *maps, size_t num_maps, hlsnap_sandbox **sb, hlsnap_error *err) {
    static const char u64x32[] = "u64(u64,u64,u64,u64,u64,u64,u64,u64,u64,u64,u64,u64,u64,u64,u64,u64,"
                                 "u64,u64,u64,u64,u64,u64,u64,u64,u64,u64,u64,u64,u64,u64,u64,u64)";
    static const hlsnap_function functions[] = {
        {"host_bool", "bool(bool)", nothing, NULL}, {"host_i32", "i32(i32)", nothing, NULL}, {"host_u32", "u32(u32)", nothing, NULL},
        {"host_i64", "i64(i64)", nothing, NULL}, {"host_u64", "u64(u64)", nothing, NULL}, {"host_f32", "f32(f32)", nothing, NULL},
        {"host_f64", "f64(f64)", nothing, NULL}, {"host_str", "str(str)", nothing, NULL}, {"host_bytes", "bytes(bytes)", nothing, NULL},
        {"host_args32", u64x32, nothing, NULL}, {"host_fails", "void()", nothing, NULL}, {"host_void", "void()", nothing, NULL}};
    hlsnap_guest_desc guest = HLSNAP_ZERO;
    hlsnap_sandbox_desc desc = HLSNAP_ZERO;
    guest.path = elf;
    guest.heap_size = 64u << 20;
    desc.hypervisor = hlsnap_kvm();
    desc.functions = functions;
    desc.num_functions = HLSNAP_COUNT(functions);
    desc.maps = maps;
    desc.num_maps = num_maps;
    return hlsnap_sandbox_create(&guest, &desc, sb, err);
}

static hlsnap_result heap_at(hlsnap_snapshot *s, uint64_t *gva) {
    hlsnap_region g;
    size_t i;
    for (i = 0; hlsnap_snapshot_region(s, i, &g); i++)
        if (strcmp(g.kind, "heap") == 0) return *gva = g.gva, HLSNAP_OK;
    return HLSNAP_ERR_NOT_FOUND;
}

static hlsnap_result save(hlsnap_sandbox *sb, const char *dir, const char *tag, uint64_t *heap, hlsnap_error *err) {
    hlsnap_snapshot *s = NULL;
    hlsnap_result r = hlsnap_sandbox_snapshot(sb, &s, err);
    if (!r) r = hlsnap_oci_save(dir, tag, s, NULL, NULL, err);
    if (!r) r = heap_at(s, heap);
    hlsnap_snapshot_release(s);
    return r;
}

/* The heap's first pages hold what the guest's allocator keeps there: left alone. */
static hlsnap_result fill(hlsnap_sandbox *sb, uint64_t heap, uint32_t from, uint32_t to, int byte, hlsnap_error *err) {
    char page[4096];
    hlsnap_result r = HLSNAP_OK;
    memset(page, byte, sizeof(page));
    for (; from < to && !r; from++) r = hlsnap_sandbox_write(sb, heap + 4096ull * (16 + from), page, sizeof(page), err);
    return r;
}

/* A sandbox of a snapshot that a layout has. */
static hlsnap_result load(const char *dir, const char *tag, const hlsnap_map *maps, size_t num_maps, hlsnap_sandbox **sb,
                          hlsnap_error *err) {
    hlsnap_sandbox_desc desc = HLSNAP_ZERO;
    hlsnap_function functions[64];
    hlsnap_snapshot *s = NULL;
    hlsnap_result r = hlsnap_oci_load(dir, tag, NULL, &s, NULL, err);
    size_t n = 0;
    for (; n < HLSNAP_COUNT(functions) && hlsnap_snapshot_import(s, n, &functions[n]); n++) functions[n].fn = nothing;
    desc.hypervisor = hlsnap_kvm();
    desc.functions = functions;
    desc.num_functions = n;
    desc.maps = maps;
    desc.num_maps = num_maps;
    if (!r) r = hlsnap_sandbox_create_from(s, &desc, sb, err);
    hlsnap_snapshot_release(s);
    return r;
}

static hlsnap_result make_heaps(const char *dir, const char *elf, hlsnap_error *err) {
    hlsnap_sandbox *sb = NULL;
    hlsnap_snapshot *s = NULL;
    uint64_t heap = 0;
    hlsnap_result r = start(elf, NULL, 0, &sb, err);
    if (!r) r = hlsnap_sandbox_snapshot(sb, &s, err);
    if (!r) r = heap_at(s, &heap);
    if (!r) r = fill(sb, heap, 0, BASE_PAGES, 0x5a, err);
    if (!r) r = save(sb, dir, "base", &heap, err);
    hlsnap_snapshot_release(s);
    hlsnap_sandbox_destroy(sb);
    sb = NULL;
    if (!r) r = load(dir, "base", NULL, 0, &sb, err);
    if (!r) r = fill(sb, heap, 3, 8, 0x33, err);
    if (!r) r = fill(sb, heap, 20, 21, 0, err);
    if (!r) r = fill(sb, heap, FAR_PAGE, FAR_PAGE + 1, 1, err);
    if (!r) r = save(sb, dir, "delta", &heap, err);
    hlsnap_sandbox_destroy(sb);
    return r;
}

/* ---- maps ---- */

enum { MODEL, PATCH, SHARED, EXTRA, TABLE, WORK, NUM_MAPS };

static void describe(hlsnap_map maps[NUM_MAPS], char paths[NUM_MAPS][300], const char *from, const char *digest) {
    static const hlsnap_map rows[NUM_MAPS] = {
        {.name = "model"}, {.name = "patch", .mode = HLSNAP_MAP_PRIVATE}, {.name = "shared", .mode = HLSNAP_MAP_SHARED},
        {.name = "extra", .optional = true}, {.name = "table", .capture = true},
        {.name = "work", .mode = HLSNAP_MAP_PRIVATE, .capture = true}};
    int i;
    for (i = 0; i < NUM_MAPS; i++) {
        maps[i] = rows[i];
        snprintf(paths[i], 300, "%s/%s", from, maps[i].name);
        maps[i].path = paths[i];
    }
    maps[MODEL].digest = digest;
}

/* Fills pages of a map, which the guest tells the place of. */
static hlsnap_result change(hlsnap_sandbox *sb, const char *name, uint64_t from, uint64_t to, int byte, hlsnap_error *err) {
    char page[4096];
    hlsnap_value out;
    hlsnap_result r = hlsnap_sandbox_call(sb, "map", HLSNAP_ARGS(hlsnap_str(name), hlsnap_bool(false)), &out, err);
    const uint64_t gva = r ? 0 : out.as.u64;
    memset(page, byte, sizeof(page));
    for (; from < to && !r; from++) r = hlsnap_sandbox_write(sb, gva + from * sizeof(page), page, sizeof(page), err);
    return r;
}

static hlsnap_result change_patch(hlsnap_sandbox *sb, int byte, hlsnap_error *err) {
    hlsnap_result r = change(sb, "patch", 2, 3, 'b', err);
    if (!r) r = change(sb, "patch", 4, 5, byte, err);
    if (!r) r = change(sb, "patch", 10, 300, 'b', err);
    return r ? r : change(sb, "patch", 290, 291, byte, err);
}

static hlsnap_result make_line(const char *dir, const char *elf, const hlsnap_map *maps, hlsnap_error *err) {
    hlsnap_sandbox *sb = NULL;
    uint64_t heap = 0;
    hlsnap_result r = start(elf, maps, NUM_MAPS, &sb, err);
    if (!r) r = change(sb, "patch", 1, 3, 'a', err);
    if (!r) r = change(sb, "patch", 6, 7, 'a', err);
    if (!r) r = change(sb, "work", 0, 1, 'a', err);
    if (!r) r = save(sb, dir, "one", &heap, err);
    if (!r) r = change_patch(sb, 'b', err);
    if (!r) r = change(sb, "work", 0, 1, 'b', err);
    if (!r) r = change(sb, "work", 1, 2, 0, err);
    if (!r) r = fill(sb, heap, 0, 1, 'b', err);
    if (!r) r = save(sb, dir, "two", &heap, err);
    hlsnap_sandbox_destroy(sb);
    sb = NULL;
    if (!r) r = load(dir, "one", maps, TABLE, &sb, err); /* without those that are captured */
    if (!r) r = change_patch(sb, 'c', err);
    if (!r) r = save(sb, dir, "three", &heap, err);
    hlsnap_sandbox_destroy(sb);
    return r;
}

static hlsnap_result make_maps(const char *dir, const char *elf, const char *from, const char *digest, hlsnap_error *err) {
    char paths[NUM_MAPS][300];
    hlsnap_map maps[NUM_MAPS];
    hlsnap_sandbox *sb = NULL;
    uint64_t heap = 0;
    hlsnap_result r;
    describe(maps, paths, from, digest);
    r = make_line(dir, elf, maps, err);
    maps[MODEL].digest = NULL;
    maps[PATCH].capture = true;
    maps[SHARED].optional = true;
    maps[EXTRA].optional = false;
    maps[EXTRA].name = "more";
    if (!r) r = start(elf, maps, NUM_MAPS, &sb, err);
    if (!r) r = save(sb, dir, "other", &heap, err);
    hlsnap_sandbox_destroy(sb);
    return r;
}

int main(int argc, char **argv) {
    hlsnap_error err = HLSNAP_ZERO;
    const hlsnap_result r = argc == 3   ? make_heaps(argv[1], argv[2], &err)
                            : argc == 5 ? make_maps(argv[1], argv[2], argv[3], argv[4], &err)
                                        : HLSNAP_ERR_ARG;
    if (r) fprintf(stderr, "%s: %s\n", hlsnap_result_name(r), err.msg);
    return r ? 1 : 0;
}

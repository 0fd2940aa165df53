/* interop_store.c - the store's functions on the command line, for tests/interop.sh; and the guest of examples/04_oci.c fed more.

    interop_store more DIR REF TAG FILE...    starts REF, has it index the files, too, and saves that; prints the digest
    interop_store load DIR REF                loads it, verified: "REF DIGEST pages=N stored=N layers=N"
    interop_store list DIR                    "TAG DIGEST BYTES" for each snapshot, "-" for no tag
    interop_store layers DIR REF              "MEMORY CHUNKS PAGES" for each layer
    interop_store tag DIR REF TAG | untag DIR TAG | gc DIR GRACE | fsck DIR | repair DIR | flatten DIR REF TAG

   cc -I.. interop_store.c -lcjson. Public names only. */
#define HLSNAP_IMPLEMENTATION
#include "hlsnap.h"
#include "hlsnap_kvm.h"
#include "hlsnap_oci.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static hlsnap_result feed(hlsnap_sandbox *sb, const char *path, hlsnap_error *err) {
    static char piece[64 * 1024];
    FILE *f = fopen(path, "rb");
    size_t n = 1;
    hlsnap_result r = f ? hlsnap_sandbox_call(sb, "begin", HLSNAP_ARGS(hlsnap_str(path)), NULL, err) : HLSNAP_ERR_OS;
    if (!f) perror(path);
    while (!r && n) {
        n = fread(piece, 1, sizeof(piece), f);
        r = hlsnap_sandbox_call(sb, "feed", HLSNAP_ARGS(hlsnap_bytes(piece, n)), NULL, err);
    }
    if (f) fclose(f);
    return r;
}

static hlsnap_result more(const char *dir, const char *ref, const char *tag, char **files, int num, hlsnap_error *err) {
    hlsnap_sandbox_desc desc = HLSNAP_ZERO;
    hlsnap_snapshot *before = NULL, *after = NULL;
    hlsnap_sandbox *sb = NULL;
    hlsnap_oci_digest digest;
    hlsnap_result r = hlsnap_oci_load(dir, ref, NULL, &before, NULL, err);
    int i;
    desc.hypervisor = hlsnap_kvm();
    if (!r) r = hlsnap_sandbox_create_from(before, &desc, &sb, err);
    for (i = 0; i < num && !r; i++) r = feed(sb, files[i], err);
    if (!r) r = hlsnap_sandbox_snapshot(sb, &after, err);
    if (!r) r = hlsnap_oci_save(dir, tag, after, NULL, &digest, err);
    if (!r) puts(digest.text);
    hlsnap_sandbox_destroy(sb);
    hlsnap_snapshot_release(after);
    hlsnap_snapshot_release(before);
    return r;
}

static hlsnap_result load(const char *dir, const char *ref, hlsnap_error *err) {
    hlsnap_snapshot *s = NULL;
    hlsnap_snapshot_info info;
    hlsnap_oci_digest digest;
    const hlsnap_result r = hlsnap_oci_load(dir, ref, NULL, &s, &digest, err);
    if (r) return r;
    hlsnap_snapshot_get_info(s, &info);
    printf("%s %s pages=%llu stored=%llu layers=%u\n", ref, digest.text, (unsigned long long)info.pages,
           (unsigned long long)info.stored_pages, info.layers);
    hlsnap_snapshot_release(s);
    return r;
}

static bool print_entry(const char *tag, const hlsnap_oci_digest *digest, uint64_t bytes, void *user) {
    (void)user;
    return printf("%s %s %llu\n", *tag ? tag : "-", digest->text, (unsigned long long)bytes) > 0;
}

static bool print_layer(const hlsnap_oci_layer *layer, void *user) {
    (void)user;
    return printf("%s %s %llu\n", layer->memory.text, layer->chunks.text, (unsigned long long)layer->pages) > 0;
}

static hlsnap_result gc(const char *dir, const char *grace, hlsnap_error *err) {
    uint64_t freed;
    const hlsnap_result r = hlsnap_oci_gc(dir, strtoull(grace, NULL, 10), &freed, err);
    if (!r) printf("%llu\n", (unsigned long long)freed);
    return r;
}

static hlsnap_result flatten(const char *dir, const char *ref, const char *tag, hlsnap_error *err) {
    hlsnap_oci_digest digest;
    const hlsnap_result r = hlsnap_oci_flatten(dir, ref, tag, NULL, &digest, err);
    if (!r) puts(digest.text);
    return r;
}

int main(int argc, char **argv) {
    hlsnap_error err = HLSNAP_ZERO;
    hlsnap_result r = HLSNAP_ERR_ARG;
    const char *what = argc > 2 ? argv[1] : "", *dir = argv[2];
    if (argc > 5 && strcmp(what, "more") == 0) r = more(dir, argv[3], argv[4], argv + 5, argc - 5, &err);
    else if (argc == 4 && strcmp(what, "load") == 0) r = load(dir, argv[3], &err);
    else if (argc == 3 && strcmp(what, "list") == 0) r = hlsnap_oci_list(dir, print_entry, NULL, &err);
    else if (argc == 4 && strcmp(what, "layers") == 0) r = hlsnap_oci_layers(dir, argv[3], print_layer, NULL, &err);
    else if (argc == 5 && strcmp(what, "tag") == 0) r = hlsnap_oci_tag(dir, argv[3], argv[4], &err);
    else if (argc == 4 && strcmp(what, "untag") == 0) r = hlsnap_oci_untag(dir, argv[3], &err);
    else if (argc == 4 && strcmp(what, "gc") == 0) r = gc(dir, argv[3], &err);
    else if (argc == 3 && strcmp(what, "fsck") == 0) r = hlsnap_oci_fsck(dir, false, &err);
    else if (argc == 3 && strcmp(what, "repair") == 0) r = hlsnap_oci_fsck(dir, true, &err);
    else if (argc == 5 && strcmp(what, "flatten") == 0) r = flatten(dir, argv[3], argv[4], &err);
    else snprintf(err.msg, sizeof(err.msg), "usage: see the first lines of interop_store.c");
    if (r) fprintf(stderr, "%s: %s\n", hlsnap_result_name(r), err.msg);
    return r ? 1 : 0;
}

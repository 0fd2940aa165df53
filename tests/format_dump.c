/* format_dump.c - hlsnap's own reader and writer on the command line, to compare with tests/snapshot_format.py.

    format_dump load DIR REF...          the lines of snapshot_format.py check
    format_dump copy DIR REF DIR2 TAG    loads, saves, prints the new manifest's digest
    format_dump verdict REF DIR...       the lines of snapshot_format.py verdict

   cc -I.. format_dump.c -lcjson. Uses the public functions, but for the bytes of memory, which only a sandbox shows. */
#define HLSNAP_IMPLEMENTATION
#include "hlsnap.h"
#include "hlsnap_kvm.h"
#include "hlsnap_oci.h"
#include <stdio.h>
#include <string.h>

#define PAGE 4096u
#define STEP 64u /* pages at once */

static int complain(const char *what, hlsnap_result r, const hlsnap_error *err) {
    fprintf(stderr, "%s: %s: %s\n", what, hlsnap_result_name(r), err->msg);
    return 1;
}

/* Pages from page on that stand in one piece of a layer, or that are all zero; at most n, at most STEP. */
static hlsnap_result read_pages(const hlsnap_snapshot *s, uint64_t page, uint64_t *n, uint8_t *to, hlsnap_error *err) {
    const hlsnap__extent *e = hlsnap__extent_at(s, page);
    uint64_t k = 1;
    if (*n > STEP) *n = STEP;
    if (!e) {
        while (k < *n && !hlsnap__extent_at(s, page + k)) k++;
        *n = k;
        memset(to, 0, (size_t)(k * PAGE));
        return HLSNAP_OK;
    }
    if (*n > e->page + e->pages - page) *n = e->page + e->pages - page;
    return hlsnap__layer_read(s->layers[e->layer], e->layer_page + (page - e->page), *n, to, err);
}

static hlsnap_result write_pages(const hlsnap_snapshot *s, uint64_t page, uint64_t left, FILE *to, hlsnap_error *err) {
    static uint8_t bytes[STEP * PAGE];
    hlsnap_result r = HLSNAP_OK;
    uint64_t n;
    for (; left && !r; left -= n, page += n) {
        n = left;
        r = read_pages(s, page, &n, bytes, err);
        if (!r) fwrite(bytes, PAGE, (size_t)n, to);
    }
    return r;
}

/* All pages of stored regions and captured maps, ascending, and what extents show of other maps. */
static hlsnap_result write_memory(const hlsnap_snapshot *s, FILE *to, hlsnap_error *err) {
    const hlsnap__layout *l = &s->guest->layout;
    hlsnap_result r = HLSNAP_OK;
    hlsnap_map map;
    uint32_t i, k;
    for (i = 0; i < l->num_regions && !r; i++)
        if (l->regions[i].kind != HLSNAP__MAILBOX && l->regions[i].kind != HLSNAP__IDENTITY)
            r = write_pages(s, (l->regions[i].gva - l->base) / PAGE, l->regions[i].pages, to, err);
    for (i = 0; hlsnap_snapshot_map(s, i, &map) && !r; i++) {
        const uint64_t first = hlsnap__gva_page(l, map.gva), pages = (map.size + PAGE - 1) / PAGE;
        if (map.capture) r = write_pages(s, first, pages, to, err);
        for (k = 0; !map.capture && k < s->num_extents && !r; k++)
            if (s->extents[k].page - first < pages) r = write_pages(s, s->extents[k].page, s->extents[k].pages, to, err);
    }
    return r;
}

/* The line ends with what sha256sum prints: the digest is not this library's word either. */
static int print_line(const char *ref, const hlsnap_snapshot *s, const hlsnap_oci_digest *digest) {
    hlsnap_error err = HLSNAP_ZERO;
    hlsnap_snapshot_info info;
    hlsnap_result r;
    FILE *sum;
    hlsnap_snapshot_get_info(s, &info);
    printf("%s %s pages=%llu stored=%llu layers=%u memory=", ref, digest->text, (unsigned long long)info.pages,
           (unsigned long long)info.stored_pages, info.layers);
    fflush(stdout);
    sum = popen("sha256sum | cut -c1-64", "w");
    if (!sum) return 1;
    r = write_memory(s, sum, &err);
    if (pclose(sum)) return 1;
    return r ? complain(ref, r, &err) : 0;
}

static int load(const char *dir, const char *ref) {
    hlsnap_error err = HLSNAP_ZERO;
    hlsnap_oci_digest digest;
    hlsnap_snapshot *s = NULL;
    hlsnap_result r = hlsnap_oci_load(dir, ref, NULL, &s, &digest, &err);
    int bad = r ? complain(ref, r, &err) : print_line(ref, s, &digest);
    hlsnap_snapshot_release(s);
    return bad;
}

static int copy(const char *from, const char *ref, const char *to, const char *tag) {
    hlsnap_error err = HLSNAP_ZERO;
    hlsnap_oci_digest digest;
    hlsnap_snapshot *s = NULL;
    hlsnap_result r = hlsnap_oci_load(from, ref, NULL, &s, NULL, &err);
    if (!r) r = hlsnap_oci_save(to, tag, s, NULL, &digest, &err);
    hlsnap_snapshot_release(s);
    if (r) return complain(ref, r, &err);
    return puts(digest.text) < 0;
}

static void verdict(const char *ref, const char *dir) {
    const char *slash = strrchr(dir, '/');
    hlsnap_error err = HLSNAP_ZERO;
    hlsnap_snapshot *s = NULL;
    hlsnap_result r = hlsnap_oci_load(dir, ref, NULL, &s, NULL, &err);
    if (r) complain(dir, r, &err);
    printf("%s %s\n", slash ? slash + 1 : dir, hlsnap_result_name(r));
    hlsnap_snapshot_release(s);
}

int main(int argc, char **argv) {
    int i, bad = 0;
    if (argc > 3 && strcmp(argv[1], "load") == 0) {
        for (i = 3; i < argc; i++) bad |= load(argv[2], argv[i]);
        return bad;
    }
    if (argc == 6 && strcmp(argv[1], "copy") == 0) return copy(argv[2], argv[3], argv[4], argv[5]);
    if (argc > 3 && strcmp(argv[1], "verdict") == 0) {
        for (i = 3; i < argc; i++) verdict(argv[2], argv[i]);
        return 0;
    }
    fprintf(stderr, "usage: format_dump load DIR REF... | copy DIR REF DIR2 TAG | verdict REF DIR...\n");
    return 2;
}

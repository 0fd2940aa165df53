/* index.c - a guest that builds a word index on its heap. A word is a maximal run of [A-Za-z0-9_], case kept.
   Built by the cc: line of ../04_oci.c. */
#define HLSNAP_IMPLEMENTATION
#include "hlsnap.h"
#include <string.h>

typedef struct count { struct count *next; uint32_t file, times; } count; /* newest file first */
typedef struct word { struct word *next; count *counts; uint32_t total, size; char text[1]; } word;

static word **table; /* chains; the number of buckets is a power of two */
static uint32_t buckets, words, files;
static char **names;
static char *partial; /* the word that the last piece of a file ended in */
static uint32_t partial_size, partial_cap;

static void *need(void *p) {
    if (!p) hlsnap_rt_abort(1, "the index outgrew the heap");
    return p;
}

static uint32_t hash(const char *s, uint32_t n) {
    uint32_t h = 2166136261u;
    while (n--) h = (h ^ (uint8_t)*s++) * 16777619u;
    return h;
}

static void grow(void) {
    word **old = table, *w, *next;
    uint32_t i, before = buckets;
    buckets = buckets ? buckets * 4 : 1024;
    table = (word **)need(hlsnap_rt_calloc(buckets, sizeof(*table)));
    for (i = 0; i < before; i++)
        for (w = old[i]; w; w = next) {
            word **at = &table[hash(w->text, w->size) & (buckets - 1)];
            next = w->next;
            w->next = *at;
            *at = w;
        }
    hlsnap_rt_free(old);
}

static word *find(const char *s, uint32_t n) {
    word *w = buckets ? table[hash(s, n) & (buckets - 1)] : NULL;
    while (w && (w->size != n || memcmp(w->text, s, n) != 0)) w = w->next;
    return w;
}

static void add(const char *s, uint32_t n) {
    word *w = find(s, n);
    if (!w) {
        if (words++ == buckets) grow();
        w = (word *)need(hlsnap_rt_calloc(1, sizeof(*w) + n));
        memcpy(w->text, s, n);
        w->size = n;
        w->next = table[hash(s, n) & (buckets - 1)];
        table[hash(s, n) & (buckets - 1)] = w;
    }
    if (!w->counts || w->counts->file != files - 1) {
        count *c = (count *)need(hlsnap_rt_calloc(1, sizeof(*c)));
        c->next = w->counts;
        c->file = files - 1;
        w->counts = c;
    }
    w->counts->times++;
    w->total++;
}

static void end_word(void) {
    if (partial_size) add(partial, partial_size);
    partial_size = 0;
}

static hlsnap_result begin(hlsnap_call *call, void *user) { /* void(str name): the next file */
    const hlsnap_value name = hlsnap_call_arg(call, 0);
    (void)user;
    end_word();
    names = (char **)need(hlsnap_rt_realloc(names, (files + 1) * sizeof(*names)));
    names[files] = (char *)need(hlsnap_rt_malloc(name.size + 1));
    memcpy(names[files++], name.str, name.size + 1);
    return HLSNAP_OK;
}

static hlsnap_result feed(hlsnap_call *call, void *user) { /* void(bytes): a piece of it; an empty one ends it */
    const hlsnap_value piece = hlsnap_call_arg(call, 0);
    size_t i;
    (void)user;
    if (!files) return hlsnap_call_fail(call, 2, "feed before begin");
    if (!piece.size) end_word();
    for (i = 0; i < piece.size; i++) {
        const char c = (char)piece.bytes[i];
        if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_')) {
            end_word();
            continue;
        }
        if (partial_size == partial_cap) {
            partial_cap = partial_cap ? partial_cap * 2 : 256;
            partial = (char *)need(hlsnap_rt_realloc(partial, partial_cap));
        }
        partial[partial_size++] = c;
    }
    return HLSNAP_OK;
}

static hlsnap_result total(hlsnap_call *call, void *user) { /* u32(str word) */
    const hlsnap_value text = hlsnap_call_arg(call, 0);
    const word *w = find(text.str, (uint32_t)text.size);
    (void)user;
    return hlsnap_call_return(call, hlsnap_u32(w ? w->total : 0));
}

static hlsnap_result in_file(hlsnap_call *call, void *user) { /* u32(str word, u32 file) */
    const hlsnap_value text = hlsnap_call_arg(call, 0);
    const word *w = find(text.str, (uint32_t)text.size);
    const count *c = w ? w->counts : NULL;
    (void)user;
    while (c && c->file != hlsnap_call_arg(call, 1).as.u32) c = c->next;
    return hlsnap_call_return(call, hlsnap_u32(c ? c->times : 0));
}

static hlsnap_result file_name(hlsnap_call *call, void *user) { /* str(u32 file): fails past the last */
    const uint32_t i = hlsnap_call_arg(call, 0).as.u32;
    (void)user;
    return i < files ? hlsnap_call_return(call, hlsnap_str(names[i])) : hlsnap_call_fail(call, 3, "no such file");
}

static const hlsnap_function exports[] = {{"begin", "void(str)", begin, NULL},    {"feed", "void(bytes)", feed, NULL},
                                          {"total", "u32(str)", total, NULL},     {"in_file", "u32(str,u32)", in_file, NULL},
                                          {"file_name", "str(u32)", file_name, NULL}};
static const hlsnap_module module = {exports, HLSNAP_COUNT(exports), NULL, 0};
HLSNAP_GUEST_MAIN(module);

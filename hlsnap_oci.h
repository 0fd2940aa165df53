/* hlsnap_oci.h - v0.1.0 - hlsnap snapshots on disk, as OCI Image Layouts. License: MIT, end of file.

Do this, in the one C or C++ file that implements hlsnap:

    #define HLSNAP_IMPLEMENTATION
    #include "hlsnap.h"
    #include "hlsnap_kvm.h"
    #include "hlsnap_oci.h"    // cc main.c -lcjson

and include the header plainly everywhere else. It lies beside hlsnap.h, of the same release.

OPTIONS             default            where to define it
  HLSNAP_CJSON_H         <cjson/cJSON.h>   beside HLSNAP_IMPLEMENTATION; "cJSON.h" for a copy in your tree; 1.7.13 or later
  all options of hlsnap.h

QUICK START
    hlsnap_oci_digest digest;
    if (hlsnap_oci_save("store", "v1", snapshot, NULL, &digest, &err)) puts(err.msg);
    ...                                                                  // later, elsewhere
    if (hlsnap_oci_load("store", "v1", NULL, &snapshot, NULL, &err)) puts(err.msg);
    else if (hlsnap_sandbox_create_from(snapshot, &desc, &sb, &err)) puts(err.msg);

    "store" is an OCI Image Layout: skopeo copy oci:store:v1 docker://registry/name:v1 moves it, and back, unchanged.

ERRORS
    As in hlsnap.h. The text names the file, the place in its JSON, what was expected and what was found. Whatever stands
    in a layout costs bounded time and memory and an error, never more. A digest that matches proves that nothing was
    damaged on the way; it does not prove who wrote it: sign the manifest's digest where that matters.

THREADS
    No global state of its own: any number of saves and loads, of one layout or several, in threads or processes. Saves
    into one layout are safe against each other and against loads (a lock file and atomic renames). One thing to know:
    cJSON stores the place of its last parse error in a global variable, so loads in two threads at once make a data race
    that nothing reads; a race detector sees it.

MEMORY
    From HLSNAP_MALLOC, but for what cJSON takes while a call lasts. A load keeps a sealed memfd of the stored pages
    (guard PRIVATE) or an open file (guard NONE), and nothing else of the layout.

LIMITS
    Blobs are memory dumps of the guest: files are 0600, directories 0700. 32,768 runs of pages, 128 layers, JSON of 1 MiB.
    The directory must be on a local file system or one with byte-range locks (OFD).

SEE docs/snapshot-format.md, docs/security.md. Search for ">>" to jump. */

#if defined(HLSNAP_IMPLEMENTATION) && !defined(_DEFAULT_SOURCE)
#define _DEFAULT_SOURCE 1 /* as in hlsnap.h */
#endif

#include "hlsnap.h"

#ifndef HLSNAP_OCI_H
#define HLSNAP_OCI_H

#if HLSNAP_VERSION != 1000 /* 0.1.0 */
#error "hlsnap.h and hlsnap_oci.h are of different releases"
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* ==== >>oci: dir is an OCI Image Layout; ref is a tag or "sha256:<64 hex>" ==== */

typedef struct hlsnap_oci_digest { char text[72]; } hlsnap_oci_digest; /* of a manifest: "sha256:<64 lowercase hex>" */

/* Called now and then on the calling thread with bytes of guest memory; false cancels. */
typedef bool (*hlsnap_oci_progress)(uint64_t done, uint64_t total, void *user);

/* What protects a loaded snapshot from changes of its files. */
typedef enum hlsnap_oci_guard {
    HLSNAP_OCI_GUARD_DEFAULT,  /* PRIVATE */
    HLSNAP_OCI_GUARD_NONE,     /* the file itself is mapped: no copy; nobody may ever write to or truncate it */
    HLSNAP_OCI_GUARD_DETECT,   /* not there yet: HLSNAP_ERR_UNSUPPORTED */
    HLSNAP_OCI_GUARD_LEASE,    /* not there yet: HLSNAP_ERR_UNSUPPORTED */
    HLSNAP_OCI_GUARD_PRIVATE,  /* a sealed copy; the bytes that were verified are the bytes that run */
    HLSNAP_OCI_GUARD_FORCE32 = 0x7fffffff
} hlsnap_oci_guard;

typedef struct hlsnap_oci_desc {
    uint32_t _start_canary;
    hlsnap_oci_guard guard;    /* load: what protects the files in use; 0 = PRIVATE; save: not looked at */
    bool disable_verify;       /* load: trust that content matches its digests; structure is checked all the same */
    uint32_t threads;          /* for hashing; 0 = 1 (more are not used yet) */
    hlsnap_oci_progress progress; void *user; /* NULL = none */
    uint32_t _end_canary;
} hlsnap_oci_desc;

/* hlsnap_oci_save -- write a snapshot into a layout under a tag.
   dir       in     the layout's directory; made when it is missing (not its parent); one that is there must be a sound
                    layout or hold neither oci-layout nor index.json
   tag       in     [A-Za-z0-9_][A-Za-z0-9._-]{0,127}; a tag that is there is moved, its old manifest stays untagged
   s         in     snapshot of an initialized guest; not NULL
   desc      in     NULL = defaults
   out       out    digest of the manifest, good for hlsnap_oci_load; may be NULL
   err       out    may be NULL
   returns   HLSNAP_OK: the snapshot is on stable storage, complete; HLSNAP_ERR_ARG (tag, canary, NULL);
             HLSNAP_ERR_STATE (a pre-init snapshot); HLSNAP_ERR_LAYOUT, _INDEX, _JSON, _FILE (what is there is not sound;
             it is left alone); HLSNAP_ERR_LIMIT (the index would pass 1 MiB); HLSNAP_ERR_CANCELLED (by desc->progress);
             HLSNAP_ERR_CHANGED (the files of an unguarded snapshot); HLSNAP_ERR_OS, _MEMORY. After a failure the
             directory is as it was; only when the very last step fails, an fsync, may the tag have moved.
   threads   any; savers of one layout wait for each other, briefly, at the end
   cost      two sha256 and one write of the stored pages, fsync
   spec      docs/snapshot-format.md  */
HLSNAP_API HLSNAP_MUST hlsnap_result hlsnap_oci_save(const char *dir, const char *tag, hlsnap_snapshot *s,
                                                     const hlsnap_oci_desc *desc, hlsnap_oci_digest *out,
                                                     hlsnap_error *err);

/* hlsnap_oci_load -- read a snapshot from a layout.
   dir       in     the layout's directory; only read, so a read-only file system will do
   ref       in     a tag, or the digest of a manifest that the index lists
   desc      in     NULL = defaults
   out       out    the snapshot; NULL on failure
   digest    out    digest of the manifest, that is, what the tag meant; may be NULL
   err       out    may be NULL
   returns   HLSNAP_OK; HLSNAP_ERR_ARG (ref, canary, NULL); HLSNAP_ERR_NOT_FOUND (tag or digest; lists the tags);
             HLSNAP_ERR_AMBIGUOUS; HLSNAP_ERR_UNSUPPORTED (guard); HLSNAP_ERR_LAYOUT, _INDEX, _MANIFEST, _CONFIG (content
             of these files), HLSNAP_ERR_JSON (not strict JSON); HLSNAP_ERR_MEDIA_TYPE (something else than a snapshot);
             HLSNAP_ERR_FILE (missing, or a symlink, directory, device); HLSNAP_ERR_SIZE, _DIGEST (a blob and its
             descriptor differ); HLSNAP_ERR_LIMIT (JSON beyond 1 MiB); HLSNAP_ERR_CHANGED (while it was read);
             HLSNAP_ERR_VERSION, _ARCH, _CPU (not for this build or machine); HLSNAP_ERR_CANCELLED; HLSNAP_ERR_OS, _MEMORY
   owns      the caller: hlsnap_snapshot_release
   threads   any
   cost      read, sha256 and copy of the stored pages; guard NONE with disable_verify: a few small files
   spec      docs/snapshot-format.md  */
HLSNAP_API HLSNAP_MUST hlsnap_result hlsnap_oci_load(const char *dir, const char *ref, const hlsnap_oci_desc *desc,
                                                     hlsnap_snapshot **out, hlsnap_oci_digest *digest,
                                                     hlsnap_error *err);

#ifdef __cplusplus
}
#endif
#endif /* HLSNAP_OCI_H */

/* ==========================================================================================================================
   >>implementation -- stop reading here if you only want the API
   ========================================================================================================================== */
#if defined(HLSNAP_IMPLEMENTATION) && !defined(HLSNAP_GUEST)
#ifndef HLSNAP_OCI_IMPLEMENTATION_ONCE
#define HLSNAP_OCI_IMPLEMENTATION_ONCE

#ifndef HLSNAP_CJSON_H
#define HLSNAP_CJSON_H <cjson/cJSON.h>
#endif
#include HLSNAP_CJSON_H
#include <stdio.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#ifdef __cplusplus
extern "C" {
#endif

#define HLSNAP__OCI_INDEX_TYPE "application/vnd.oci.image.index.v1+json"
#define HLSNAP__OCI_MANIFEST_TYPE "application/vnd.oci.image.manifest.v1+json"
#define HLSNAP__OCI_ARTIFACT_TYPE "application/vnd.hlsnap.snapshot.v1"
#define HLSNAP__OCI_CONFIG_TYPE "application/vnd.hlsnap.snapshot.config.v1+json"
#define HLSNAP__OCI_MEMORY_TYPE "application/vnd.hlsnap.snapshot.memory.v1"
#define HLSNAP__OCI_CHUNKS_TYPE "application/vnd.hlsnap.snapshot.chunks.v1"
#define HLSNAP__OCI_REF_NAME "org.opencontainers.image.ref.name"
#define HLSNAP__OCI_TITLE "org.opencontainers.image.title"
#if defined(__x86_64__)
#define HLSNAP__OCI_ARCH "x86_64"
#else
#define HLSNAP__OCI_ARCH "aarch64"
#endif
#define HLSNAP__OCI_JSON_MAX (1u << 20)  /* bytes of any JSON file */
#define HLSNAP__OCI_MAX_EXTENTS 32768u   /* runs of pages: what one process can map and 1 MiB of config can hold */
#define HLSNAP__OCI_CHUNK 65536u         /* bytes of a memory layer under one digest of its chunk list */
#define HLSNAP__OCI_BATCH (4u * HLSNAP__OCI_CHUNK) /* bytes moved at a time; they stay in the second-level cache */

/* ---- >>sha256 ---- */

typedef void (*hlsnap__sha256_lane)(uint32_t h[8], const uint8_t *p, size_t blocks);

typedef struct hlsnap__sha256 {
    hlsnap__sha256_lane lane;
    uint32_t h[8];
    uint64_t size;             /* bytes so far */
    uint8_t tail[64];          /* the last size % 64 of them */
} hlsnap__sha256;

static const uint32_t hlsnap__sha256_k[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

static uint32_t hlsnap__sha256_rotr(uint32_t x, int n) { return x >> n | x << (32 - n); }

/* FIPS 180-4, 6.2.2, with the message schedule kept as a ring of 16 words. */
static void hlsnap__sha256_portable(uint32_t h[8], const uint8_t *p, size_t blocks) {
    uint32_t w[16], v[8], t1, t2;
    int i;
    for (; blocks; blocks--, p += 64) {
        memcpy(v, h, sizeof(v));
        for (i = 0; i < 64; i++) {
            if (i < 16) {
                w[i] = (uint32_t)p[4 * i] << 24 | (uint32_t)p[4 * i + 1] << 16 | (uint32_t)p[4 * i + 2] << 8 |
                       p[4 * i + 3];
            } else {
                uint32_t a = w[(i + 1) & 15], b = w[(i + 14) & 15];
                w[i & 15] += (hlsnap__sha256_rotr(a, 7) ^ hlsnap__sha256_rotr(a, 18) ^ a >> 3) + w[(i + 9) & 15] +
                             (hlsnap__sha256_rotr(b, 17) ^ hlsnap__sha256_rotr(b, 19) ^ b >> 10);
            }
            t1 = v[7] + (hlsnap__sha256_rotr(v[4], 6) ^ hlsnap__sha256_rotr(v[4], 11) ^ hlsnap__sha256_rotr(v[4], 25)) +
                 ((v[4] & v[5]) ^ (~v[4] & v[6])) + hlsnap__sha256_k[i] + w[i & 15];
            t2 = (hlsnap__sha256_rotr(v[0], 2) ^ hlsnap__sha256_rotr(v[0], 13) ^ hlsnap__sha256_rotr(v[0], 22)) +
                 ((v[0] & v[1]) ^ (v[0] & v[2]) ^ (v[1] & v[2]));
            memmove(v + 1, v, 7 * sizeof(v[0]));
            v[4] += t1;
            v[0] = t1 + t2;
        }
        for (i = 0; i < 8; i++) h[i] += v[i];
    }
}

#if defined(__x86_64__)
/* Four rounds, and the schedule of the four that come 16 rounds later. */
#define HLSNAP__SHA256_ROUNDS(w, i) \
    x = _mm_add_epi32(w, _mm_loadu_si128((const __m128i *)(const void *)&hlsnap__sha256_k[i])); \
    cdgh = _mm_sha256rnds2_epu32(cdgh, abef, x); \
    abef = _mm_sha256rnds2_epu32(abef, cdgh, _mm_shuffle_epi32(x, 0x0e))
#define HLSNAP__SHA256_SCHEDULE(w0, w1, w2, w3) \
    w0 = _mm_sha256msg2_epu32(_mm_add_epi32(_mm_sha256msg1_epu32(w0, w1), _mm_alignr_epi8(w3, w2, 4)), w3)

/* The same with the CPU's SHA extensions, which want the state as ABEF and CDGH. */
__attribute__((target("sha,ssse3,sse4.1"))) static void hlsnap__sha256_ni(uint32_t h[8], const uint8_t *p,
                                                                          size_t blocks) {
    const __m128i swap = _mm_set_epi64x(0x0c0d0e0f08090a0bll, 0x0405060700010203ll);
    const __m128i *from;
    __m128i *state = (__m128i *)(void *)h;
    __m128i x = _mm_shuffle_epi32(_mm_loadu_si128(state), 0xb1),
            cdgh = _mm_shuffle_epi32(_mm_loadu_si128(state + 1), 0x1b);
    __m128i abef = _mm_alignr_epi8(x, cdgh, 8), abef0, cdgh0, w0, w1, w2, w3;
    int i;
    cdgh = _mm_blend_epi16(cdgh, x, 0xf0);
    for (; blocks; blocks--, p += 64) {
        from = (const __m128i *)(const void *)p;
        abef0 = abef;
        cdgh0 = cdgh;
        w0 = _mm_shuffle_epi8(_mm_loadu_si128(from), swap);
        w1 = _mm_shuffle_epi8(_mm_loadu_si128(from + 1), swap);
        w2 = _mm_shuffle_epi8(_mm_loadu_si128(from + 2), swap);
        w3 = _mm_shuffle_epi8(_mm_loadu_si128(from + 3), swap);
        for (i = 0; i < 48; i += 16) {
            HLSNAP__SHA256_ROUNDS(w0, i);
            HLSNAP__SHA256_SCHEDULE(w0, w1, w2, w3);
            HLSNAP__SHA256_ROUNDS(w1, i + 4);
            HLSNAP__SHA256_SCHEDULE(w1, w2, w3, w0);
            HLSNAP__SHA256_ROUNDS(w2, i + 8);
            HLSNAP__SHA256_SCHEDULE(w2, w3, w0, w1);
            HLSNAP__SHA256_ROUNDS(w3, i + 12);
            HLSNAP__SHA256_SCHEDULE(w3, w0, w1, w2);
        }
        HLSNAP__SHA256_ROUNDS(w0, 48);
        HLSNAP__SHA256_ROUNDS(w1, 52);
        HLSNAP__SHA256_ROUNDS(w2, 56);
        HLSNAP__SHA256_ROUNDS(w3, 60);
        abef = _mm_add_epi32(abef, abef0);
        cdgh = _mm_add_epi32(cdgh, cdgh0);
    }
    x = _mm_shuffle_epi32(abef, 0x1b);
    cdgh = _mm_shuffle_epi32(cdgh, 0xb1);
    _mm_storeu_si128(state, _mm_blend_epi16(x, cdgh, 0xf0));
    _mm_storeu_si128(state + 1, _mm_alignr_epi8(cdgh, x, 8));
}
#endif

/* The fastest lane of this machine. Asks CPUID, which is slow inside a VM: once per operation. */
static hlsnap__sha256_lane hlsnap__sha256_pick(void) {
#if defined(__x86_64__)
    const uint64_t need = 1ull << HLSNAP__CPU_sha_ni | 1ull << HLSNAP__CPU_ssse3 | 1ull << HLSNAP__CPU_sse4_1;
    if ((hlsnap__cpu_features() & need) == need) return hlsnap__sha256_ni;
#endif
    return hlsnap__sha256_portable;
}

static void hlsnap__sha256_init(hlsnap__sha256 *s, hlsnap__sha256_lane lane) {
    static const uint32_t h[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                  0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
    s->lane = lane;
    memcpy(s->h, h, sizeof(h));
    s->size = 0;
}

static void hlsnap__sha256_update(hlsnap__sha256 *s, const void *data, size_t n) {
    const uint8_t *p = (const uint8_t *)data;
    size_t have = s->size % 64, take = 64 - have;
    if (!n) return;
    s->size += n;
    if (n < take) {
        memcpy(s->tail + have, p, n);
        return;
    }
    if (have) {
        memcpy(s->tail + have, p, take);
        s->lane(s->h, s->tail, 1);
        p += take;
        n -= take;
    }
    s->lane(s->h, p, n / 64);
    memcpy(s->tail, p + n / 64 * 64, n % 64);
}

static void hlsnap__sha256_final(hlsnap__sha256 *s, uint8_t out[32]) {
    uint64_t bits = s->size * 8;
    uint8_t pad[72] = {0x80};
    size_t n = 64 - (s->size + 8) % 64; /* 1..64 bytes of padding, then the length */
    int i;
    for (i = 0; i < 8; i++) pad[n + (size_t)i] = (uint8_t)(bits >> (56 - 8 * i));
    hlsnap__sha256_update(s, pad, n + 8);
    for (i = 0; i < 32; i++) out[i] = (uint8_t)(s->h[i / 4] >> (24 - 8 * (i % 4)));
}

static void hlsnap__sha256_of(hlsnap__sha256_lane lane, const void *data, size_t n, uint8_t out[32]) {
    hlsnap__sha256 s;
    hlsnap__sha256_init(&s, lane);
    hlsnap__sha256_update(&s, data, n);
    hlsnap__sha256_final(&s, out);
}

/* "sha256:<hex>" and its NUL: 72 bytes. */
static void hlsnap__sha256_text(const uint8_t sum[32], char text[72]) {
    static const char hex[] = "0123456789abcdef";
    size_t i;
    memcpy(text, "sha256:", 7);
    for (i = 0; i < 32; i++) {
        text[7 + 2 * i] = hex[sum[i] >> 4];
        text[8 + 2 * i] = hex[sum[i] & 15];
    }
    text[71] = 0;
}

/* "sha256:" and 64 lowercase hex digits, the only digests that name a file here. */
static bool hlsnap__sha256_text_ok(const char *text) {
    return strlen(text) == 71 && memcmp(text, "sha256:", 7) == 0 && strspn(text + 7, "0123456789abcdef") == 64;
}

/* ---- >>json: strict before cJSON, which is not: docs/snapshot-format.md "JSON" ---- */

#define HLSNAP__JSON_DEPTH 16
#define HLSNAP__JSON_NODES 262144u
#define HLSNAP__JSON_INT_MAX (1ull << 53)

typedef struct hlsnap__json {  /* one document */
    char file[80];             /* its path in the layout, for messages */
    hlsnap_result code;        /* what a violation of its schema returns */
    char *text;                /* size bytes and a NUL */
    size_t size;
    cJSON *root;               /* NULL: no document */
} hlsnap__json;

typedef struct hlsnap__json_scan {
    const unsigned char *p, *end;
    uint32_t depth, nodes;
    const char *why;           /* of a failure, at p */
} hlsnap__json_scan;

static bool hlsnap__json_stop(hlsnap__json_scan *s, const char *why) {
    s->why = why;
    return false;
}

static void hlsnap__json_space(hlsnap__json_scan *s) {
    while (s->p < s->end && (*s->p == ' ' || *s->p == '\n' || *s->p == '\t' || *s->p == '\r')) s->p++;
}

/* Takes c where it comes next. */
static bool hlsnap__json_take(hlsnap__json_scan *s, char c) {
    if (s->p >= s->end || *s->p != (unsigned char)c) return false;
    s->p++;
    return true;
}

/* Bytes of the UTF-8 character at p, of at most n bytes; 0: none (overlong, a surrogate, beyond U+10FFFF, cut). */
static size_t hlsnap__json_utf8(const unsigned char *p, size_t n) {
    size_t size = p[0] < 0x80 ? 1 : p[0] < 0xc2 ? 0 : p[0] < 0xe0 ? 2 : p[0] < 0xf0 ? 3 : p[0] < 0xf5 ? 4 : 0, i;
    if (size > n) return 0;
    for (i = 1; i < size; i++)
        if ((p[i] & 0xc0) != 0x80) return 0;
    if ((p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xed && p[1] > 0x9f) || (p[0] == 0xf0 && p[1] < 0x90) ||
        (p[0] == 0xf4 && p[1] > 0x8f))
        return 0;
    return size;
}

/* The four hex digits of \u, or -1. */
static int32_t hlsnap__json_hex4(hlsnap__json_scan *s) {
    int32_t v = 0;
    int i;
    for (i = 0; i < 4; i++, s->p++) {
        int c = s->p < s->end ? *s->p : 0, digit;
        if (c >= '0' && c <= '9') digit = c - '0';
        else if ((c | 0x20) >= 'a' && (c | 0x20) <= 'f') digit = (c | 0x20) - 'a' + 10;
        else return -1;
        v = v << 4 | digit;
    }
    return v;
}

/* What follows a backslash. No \u0000: cJSON would end the string there. */
static bool hlsnap__json_escape(hlsnap__json_scan *s) {
    int32_t unit;
    if (s->p < s->end && *s->p && strchr("\"\\/bfnrt", *s->p)) {
        s->p++;
        return true;
    }
    if (!hlsnap__json_take(s, 'u')) return hlsnap__json_stop(s, "unknown escape");
    unit = hlsnap__json_hex4(s);
    if (unit <= 0) return hlsnap__json_stop(s, unit ? "\\u without four hex digits" : "\\u0000 in a string");
    if (unit < 0xd800 || unit > 0xdfff) return true;
    if (unit <= 0xdbff && hlsnap__json_take(s, '\\') && hlsnap__json_take(s, 'u')) {
        unit = hlsnap__json_hex4(s);
        if (unit >= 0xdc00 && unit <= 0xdfff) return true;
    }
    return hlsnap__json_stop(s, "lone surrogate");
}

static bool hlsnap__json_string_scan(hlsnap__json_scan *s) {
    if (!hlsnap__json_take(s, '"')) return hlsnap__json_stop(s, "no string where one must be");
    while (s->p < s->end) {
        size_t n = hlsnap__json_utf8(s->p, (size_t)(s->end - s->p));
        if (!n) return hlsnap__json_stop(s, "not UTF-8");
        if (*s->p < 0x20) return hlsnap__json_stop(s, "control character in a string");
        if (*s->p == '"') {
            s->p++;
            return true;
        }
        if (*s->p != '\\') s->p += n;
        else if (s->p++, !hlsnap__json_escape(s)) return false;
    }
    return hlsnap__json_stop(s, "string without end");
}

/* -?(0|[1-9][0-9]*), not -0, of a magnitude that a double holds exactly. */
static bool hlsnap__json_number_scan(hlsnap__json_scan *s) {
    bool negative = hlsnap__json_take(s, '-'), leading = s->p < s->end && *s->p == '0';
    const unsigned char *from = s->p;
    uint64_t v = 0;
    for (; s->p < s->end && *s->p >= '0' && *s->p <= '9'; s->p++) {
        v = v * 10 + (uint64_t)(*s->p - '0');
        if (v > HLSNAP__JSON_INT_MAX) return hlsnap__json_stop(s, "number beyond 2^53");
    }
    if (s->p == from || (leading && (s->p - from > 1 || negative))) return hlsnap__json_stop(s, "not a plain integer");
    if (s->p < s->end && (*s->p == '.' || *s->p == 'e' || *s->p == 'E'))
        return hlsnap__json_stop(s, "not a plain integer");
    return true;
}

static bool hlsnap__json_word_scan(hlsnap__json_scan *s) {
    static const char *const words[] = {"null", "true", "false"};
    size_t i, n;
    for (i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        n = strlen(words[i]);
        if ((size_t)(s->end - s->p) < n || memcmp(s->p, words[i], n) != 0) continue;
        s->p += n;
        return true;
    }
    return hlsnap__json_stop(s, "no value where one must be");
}

/* Moves past one value, which is how everything here walks through text. */
static bool hlsnap__json_value_scan(hlsnap__json_scan *s) {
    bool object;
    char close;
    if (s->p >= s->end) return hlsnap__json_stop(s, "ends too early");
    if (++s->nodes > HLSNAP__JSON_NODES) return hlsnap__json_stop(s, "too many values");
    if (*s->p == '"') return hlsnap__json_string_scan(s);
    if (*s->p == '-' || (*s->p >= '0' && *s->p <= '9')) return hlsnap__json_number_scan(s);
    if (*s->p != '{' && *s->p != '[') return hlsnap__json_word_scan(s);
    object = *s->p++ == '{';
    close = object ? '}' : ']';
    if (++s->depth > HLSNAP__JSON_DEPTH) return hlsnap__json_stop(s, "nested too deep");
    hlsnap__json_space(s);
    if (!hlsnap__json_take(s, close)) {
        do {
            hlsnap__json_space(s);
            if (object) {
                if (!hlsnap__json_string_scan(s)) return false;
                hlsnap__json_space(s);
                if (!hlsnap__json_take(s, ':')) return hlsnap__json_stop(s, "no ':' after a name");
                hlsnap__json_space(s);
            }
            if (!hlsnap__json_value_scan(s)) return false;
            hlsnap__json_space(s);
        } while (hlsnap__json_take(s, ','));
        if (!hlsnap__json_take(s, close)) return hlsnap__json_stop(s, "no ',' and no end where one must be");
    }
    s->depth--;
    return true;
}

static hlsnap__json_scan hlsnap__json_start(const char *text, size_t size) {
    hlsnap__json_scan s;
    s.p = (const unsigned char *)text;
    s.end = size ? s.p + size : s.p; /* no text: NULL */
    s.depth = s.nodes = 0;
    s.why = "";
    return s;
}

static int hlsnap__json_compare(const void *a, const void *b) {
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* A name that an object below holds twice, or NULL. names has room for all names of the document. */
static const char *hlsnap__json_twice(const cJSON *value, const char **names) {
    const cJSON *c;
    const char *found = NULL;
    size_t i, n = 0;
    if (cJSON_IsObject(value)) {
        for (c = value->child; c; c = c->next) names[n++] = c->string;
        qsort(names, n, sizeof(names[0]), hlsnap__json_compare);
        for (i = 1; i < n; i++)
            if (strcmp(names[i - 1], names[i]) == 0) return names[i];
    }
    for (c = value->child; c && !found; c = c->next)
        if (c->child) found = hlsnap__json_twice(c, names);
    return found;
}

static void hlsnap__json_close(hlsnap__json *d) {
    cJSON_Delete(d->root);
    hlsnap__free(d->text);
    d->root = NULL;
    d->text = NULL;
}

/* Fills d->root from d->text. */
static hlsnap_result hlsnap__json_parse(hlsnap__json *d, hlsnap_error *err) {
    hlsnap__json_scan s = hlsnap__json_start(d->text, d->size);
    const char **names, *twice;
    char shown[80];
    bool ok;
    hlsnap__json_space(&s);
    ok = hlsnap__json_value_scan(&s);
    hlsnap__json_space(&s);
    if (ok && s.p != s.end) ok = hlsnap__json_stop(&s, "more text after the end");
    if (!ok)
        return hlsnap__fail(err, HLSNAP_ERR_JSON, 0, "%s: byte %zu: %s", d->file,
                            (size_t)(s.p - (const unsigned char *)d->text), s.why);
    names = (const char **)hlsnap__alloc(s.nodes, sizeof(names[0]), err);
    if (!names) return HLSNAP_ERR_MEMORY;
    d->root = cJSON_ParseWithLength(d->text, d->size);
    twice = d->root ? hlsnap__json_twice(d->root, names) : NULL;
    hlsnap__printable(shown, sizeof(shown), twice, twice ? strlen(twice) : 0, false);
    hlsnap__free((void *)names);
    if (twice) return hlsnap__fail(err, HLSNAP_ERR_JSON, 0, "%s: an object holds '%s' twice", d->file, shown);
    if (!d->root) return hlsnap__fail(err, HLSNAP_ERR_MEMORY, 0, "%s: cJSON: out of memory", d->file);
    if (!cJSON_IsObject(d->root)) return hlsnap__fail(err, d->code, 0, "%s: not an object", d->file);
    return HLSNAP_OK;
}

static const cJSON *hlsnap__json_get(const cJSON *o, const char *name) {
    return cJSON_GetObjectItemCaseSensitive(o, name);
}

/* path is where o stands, such as "layers[3].", name the member that is wrong, "" for o itself. */
static hlsnap_result hlsnap__json_bad(const hlsnap__json *d, const char *path, const char *name, const char *expected,
                                      const cJSON *found, hlsnap_error *err) {
    char text[100] = "nothing", member[72];
    hlsnap__printable(member, sizeof(member), name, strlen(name), false);
    if (cJSON_IsString(found))
        hlsnap__printable(text, sizeof(text), found->valuestring, strlen(found->valuestring), false);
    else if (cJSON_IsNumber(found)) hlsnap__format(text, sizeof(text), "%.0f", found->valuedouble);
    else if (cJSON_IsObject(found)) hlsnap__format(text, sizeof(text), "an object");
    else if (found) hlsnap__format(text, sizeof(text), cJSON_IsArray(found) ? "an array" : "true, false or null");
    return hlsnap__fail(err, d->code, 0, "%s: %s%s: expected %s, found %s%s%s", d->file, path, member, expected,
                        cJSON_IsString(found) ? "'" : "", text, cJSON_IsString(found) ? "'" : "");
}

static hlsnap_result hlsnap__json_string(const hlsnap__json *d, const cJSON *o, const char *path, const char *name,
                                         const char **out, hlsnap_error *err) {
    const cJSON *v = hlsnap__json_get(o, name);
    if (!cJSON_IsString(v)) return hlsnap__json_bad(d, path, name, "a string", v, err);
    *out = v->valuestring;
    return HLSNAP_OK;
}

/* A whole number from 0 to max. */
static hlsnap_result hlsnap__json_int(const hlsnap__json *d, const cJSON *o, const char *path, const char *name,
                                      uint64_t max, uint64_t *out, hlsnap_error *err) {
    const cJSON *v = hlsnap__json_get(o, name);
    char expected[64];
    if (cJSON_IsNumber(v) && v->valuedouble >= 0 && v->valuedouble <= (double)max) {
        *out = (uint64_t)v->valuedouble;
        return HLSNAP_OK;
    }
    hlsnap__format(expected, sizeof(expected), "an integer from 0 to %llu", (unsigned long long)max);
    return hlsnap__json_bad(d, path, name, expected, v, err);
}

/* A 64-bit value: "0x" and up to 16 lowercase hex digits, no needless zeros. */
static hlsnap_result hlsnap__json_hex(const hlsnap__json *d, const cJSON *o, const char *path, const char *name,
                                      uint64_t *out, hlsnap_error *err) {
    const cJSON *v = hlsnap__json_get(o, name);
    const char *s = cJSON_IsString(v) ? v->valuestring : "";
    size_t n = strlen(s);
    if (n < 3 || n > 18 || s[0] != '0' || s[1] != 'x' || strspn(s + 2, "0123456789abcdef") != n - 2 ||
        (s[2] == '0' && n > 3))
        return hlsnap__json_bad(d, path, name, "a string such as \"0x1f\"", v, err);
    *out = strtoull(s + 2, NULL, 16);
    return HLSNAP_OK;
}

static hlsnap_result hlsnap__json_array(const hlsnap__json *d, const cJSON *o, const char *path, const char *name,
                                        uint32_t max, const cJSON **first, uint32_t *num, hlsnap_error *err) {
    const cJSON *v = hlsnap__json_get(o, name);
    char expected[64];
    *num = cJSON_IsArray(v) ? (uint32_t)cJSON_GetArraySize(v) : UINT32_MAX;
    hlsnap__format(expected, sizeof(expected), "an array of at most %u", max);
    if (*num > max) return hlsnap__json_bad(d, path, name, expected, v, err);
    *first = v->child;
    return HLSNAP_OK;
}

/* o is an object with exactly these members; names end with NULL. */
static hlsnap_result hlsnap__json_exactly(const hlsnap__json *d, const cJSON *o, const char *path,
                                          const char *const *names, hlsnap_error *err) {
    const cJSON *c;
    size_t i;
    if (!cJSON_IsObject(o)) return hlsnap__json_bad(d, path, "", "an object", o, err);
    for (i = 0; names[i]; i++)
        if (!hlsnap__json_get(o, names[i])) return hlsnap__json_bad(d, path, names[i], "a value", NULL, err);
    for (c = o->child; c; c = c->next) {
        for (i = 0; names[i] && strcmp(names[i], c->string) != 0; i++) {}
        if (!names[i]) return hlsnap__json_bad(d, path, c->string, "no such field", c, err);
    }
    return HLSNAP_OK;
}

/* ---- >>text: JSON is written by hand, because cJSON's numbers are doubles and its layout is its own ---- */

typedef struct hlsnap__text {  /* size > cap: it did not fit */
    char *at;                  /* cap + 1 bytes */
    size_t size, cap;
} hlsnap__text;

/* Starts a text of up to cap bytes. The caller frees t->at in the end. */
static hlsnap_result hlsnap__text_start(hlsnap__text *t, size_t cap, hlsnap_error *err) {
    t->size = 0;
    if (t->at && cap <= t->cap) return HLSNAP_OK;
    hlsnap__free(t->at);
    t->at = (char *)hlsnap__alloc(1, cap + 1, err);
    t->cap = cap;
    return t->at ? HLSNAP_OK : HLSNAP_ERR_MEMORY;
}

static void hlsnap__text_raw(hlsnap__text *t, const void *p, size_t n) {
    if (t->size > t->cap || n > t->cap - t->size) {
        t->size = t->cap + 1;
        return;
    }
    memcpy(t->at + t->size, p, n);
    t->size += n;
}

__attribute__((format(printf, 2, 3))) static void hlsnap__text_add(hlsnap__text *t, const char *fmt, ...) {
    va_list ap;
    int n;
    if (t->size > t->cap) return;
    va_start(ap, fmt);
    n = hlsnap__rt_vformat(t->at + t->size, t->cap + 1 - t->size, fmt, ap);
    va_end(ap);
    t->size = n < 0 || (size_t)n > t->cap - t->size ? t->cap + 1 : t->size + (size_t)n;
}

/* A JSON string. What a file may not hold (control characters, broken UTF-8) becomes '_'. */
static void hlsnap__text_string(hlsnap__text *t, const char *s) {
    const unsigned char *p = (const unsigned char *)s;
    size_t left = strlen(s), n;
    hlsnap__text_raw(t, "\"", 1);
    for (; left; left -= n, p += n) {
        n = hlsnap__json_utf8(p, left);
        if (!n || *p < 0x20 || *p == 0x7f) hlsnap__text_raw(t, "_", n = 1);
        else if (*p == '"' || *p == '\\') hlsnap__text_add(t, "\\%c", *p);
        else hlsnap__text_raw(t, p, n);
    }
    hlsnap__text_raw(t, "\"", 1);
}

typedef struct hlsnap__json_span { const char *at; size_t size; } hlsnap__json_span;

static hlsnap__json_span hlsnap__json_span_from(const unsigned char *from, const hlsnap__json_scan *s) {
    hlsnap__json_span span;
    span.at = (const char *)from;
    span.size = (size_t)(s->p - from);
    return span;
}

/* The next member (name not NULL) or element of the value that s stands in, as it is written. Ends with cJSON's list, which
   is walked in step: the text was scanned before, so this cannot fail. */
static void hlsnap__json_next(hlsnap__json_scan *s, hlsnap__json_span *name, hlsnap__json_span *value) {
    const unsigned char *from;
    hlsnap__json_space(s);
    s->p++; /* the opening bracket or a comma */
    hlsnap__json_space(s);
    from = s->p;
    if (name) {
        hlsnap__json_string_scan(s);
        *name = hlsnap__json_span_from(from, s);
        hlsnap__json_space(s);
        s->p++;
        hlsnap__json_space(s);
        from = s->p;
    }
    hlsnap__json_value_scan(s);
    *value = hlsnap__json_span_from(from, s);
}

/* Writes object o, which stands in `text`, without the member that `path` leads to: names from outside in, NULL at the end. */
static void hlsnap__text_without(hlsnap__text *t, const cJSON *o, hlsnap__json_span text, const char *const *path) {
    hlsnap__json_scan s = hlsnap__json_start(text.at, text.size);
    hlsnap__json_span name, value;
    const cJSON *c;
    bool first = true;
    hlsnap__text_raw(t, "{", 1);
    for (c = o->child; c; c = c->next) {
        bool on_path = strcmp(c->string, path[0]) == 0;
        hlsnap__json_next(&s, &name, &value);
        if (on_path && !path[1]) continue;
        if (!first) hlsnap__text_raw(t, ",", 1);
        first = false;
        hlsnap__text_raw(t, name.at, name.size);
        hlsnap__text_raw(t, ":", 1);
        if (on_path) hlsnap__text_without(t, c, value, path + 1);
        else hlsnap__text_raw(t, value.at, value.size);
    }
    hlsnap__text_raw(t, "}", 1);
}

/* ---- >>files: a layout may be hostile, so nothing is opened through a link and only regular files are read ---- */

#define HLSNAP__OCI_RESOLVE (0x08u | 0x04u | 0x02u) /* BENEATH, NO_SYMLINKS, NO_MAGICLINKS */
#define HLSNAP__OCI_READ (O_RDONLY | O_NONBLOCK | O_NOFOLLOW | O_CLOEXEC | O_NOCTTY) /* a FIFO must not block */
#ifndef SYS_openat2
#define SYS_openat2 437
#endif

/* A failed system call on a path; what says which. Paths that lead nowhere, or to something else than a file or directory
   of our own, are the store's fault, the rest is the system's. */
static hlsnap_result hlsnap__oci_os(hlsnap_error *err, int number, const char *what, const char *path) {
    bool store = number == ENOENT || number == ENOTDIR || number == ELOOP || number == EXDEV || number == EISDIR ||
                 number == ENXIO;
    char shown[200];
    hlsnap__printable(shown, sizeof(shown), path, strlen(path), false);
    return hlsnap__fail(err, store ? HLSNAP_ERR_FILE : HLSNAP_ERR_OS, number, "%s: %s: %s (errno %d)", shown, what,
                        number == ENOENT    ? "there is none"
                        : number == ENOTDIR ? "not a directory"
                        : number == ELOOP   ? "a symbolic link"
                        : store             ? "not a regular file"
                                            : "failed",
                        number);
}

/* Opens a path below root without following any link; where openat2 is not to be had, component by component. -1, errno. */
static int hlsnap__oci_openat(int root, const char *path) {
    struct { uint64_t flags, mode, resolve; } how = {HLSNAP__OCI_READ, 0, HLSNAP__OCI_RESOLVE};
    long fd = syscall(SYS_openat2, root, path, &how, sizeof(how));
    const char *slash;
    int at = root;
    if (fd >= 0 || (errno != ENOSYS && errno != EPERM && errno != EINVAL && errno != E2BIG)) return (int)fd;
    while (at >= 0 && (slash = strchr(path, '/')) != NULL) {
        char part[80];
        int next;
        hlsnap__format(part, sizeof(part), "%.*s", (int)(slash - path), path);
        next = openat(at, part, HLSNAP__OCI_READ | O_DIRECTORY);
        if (at != root) close(at);
        at = next;
        path = slash + 1;
    }
    if (at < 0) return -1;
    fd = openat(at, path, HLSNAP__OCI_READ);
    if (at != root) {
        int saved = errno;
        close(at);
        errno = saved;
    }
    return (int)fd;
}

/* Opens a regular file of the layout. */
static hlsnap_result hlsnap__oci_open(int root, const char *path, int *fd, uint64_t *size, hlsnap_error *err) {
    struct stat st;
    hlsnap_result r = HLSNAP_OK;
    *fd = hlsnap__oci_openat(root, path);
    if (*fd < 0) return hlsnap__oci_os(err, errno, "open", path);
    if (fstat(*fd, &st) != 0) r = hlsnap__oci_os(err, errno, "stat", path);
    else if (!S_ISREG(st.st_mode)) r = hlsnap__fail(err, HLSNAP_ERR_FILE, 0, "%s: not a regular file", path);
    if (!r) {
        *size = (uint64_t)st.st_size;
        return HLSNAP_OK;
    }
    close(*fd);
    *fd = -1;
    return r;
}

/* Opens a blob, whose size must be its descriptor's. */
static hlsnap_result hlsnap__oci_open_blob(int root, const char *digest, uint64_t size, int *fd, hlsnap_error *err) {
    char path[96];
    uint64_t found;
    hlsnap_result r;
    hlsnap__format(path, sizeof(path), "blobs/sha256/%s", digest + 7);
    r = hlsnap__oci_open(root, path, fd, &found, err);
    if (r || found == size) return r;
    close(*fd);
    *fd = -1;
    return hlsnap__fail(err, HLSNAP_ERR_SIZE, 0, "%s: %llu bytes, not %llu as its descriptor says", path,
                        (unsigned long long)found, (unsigned long long)size);
}

/* size bytes and a NUL of an open file, which must end there. The caller frees *out, also after a failure. */
static hlsnap_result hlsnap__oci_slurp(int fd, const char *path, size_t size, char **out, hlsnap_error *err) {
    hlsnap_result r;
    ssize_t more;
    char beyond;
    *out = (char *)hlsnap__alloc(1, size + 1, err);
    if (!*out) return HLSNAP_ERR_MEMORY;
    r = hlsnap__pread(fd, *out, size, 0, err);
    if (r) return r;
    do more = pread(fd, &beyond, 1, (off_t)size);
    while (more < 0 && errno == EINTR);
    if (more < 0) return hlsnap__oci_os(err, errno, "read", path);
    return more ? hlsnap__fail(err, HLSNAP_ERR_CHANGED, 0, "%s: grew beyond %zu bytes", path, size) : HLSNAP_OK;
}

/* Reads and parses a JSON file that stands under its name; code is what a violation of its schema will return. */
static hlsnap_result hlsnap__oci_read_json(int root, const char *path, hlsnap_result code, hlsnap__json *d,
                                           hlsnap_error *err) {
    uint64_t size;
    int fd;
    hlsnap_result r = hlsnap__oci_open(root, path, &fd, &size, err);
    if (r) return r;
    hlsnap__format(d->file, sizeof(d->file), "%s", path);
    d->code = code;
    d->size = (size_t)size;
    if (size > HLSNAP__OCI_JSON_MAX)
        r = hlsnap__fail(err, HLSNAP_ERR_LIMIT, 0, "%s: %llu bytes, at most %u are read", path,
                         (unsigned long long)size, HLSNAP__OCI_JSON_MAX);
    else r = hlsnap__oci_slurp(fd, path, d->size, &d->text, err);
    close(fd);
    return r ? r : hlsnap__json_parse(d, err);
}

/* ---- >>store: an open layout, locked; what a failed save made is unmade ---- */

#define HLSNAP__OCI_OFD_SETLK 37
#define HLSNAP__OCI_OFD_SETLKW 38
#define HLSNAP__OCI_LOCK ".hlsnap.lock"
#define HLSNAP__OCI_TEMP ".hlsnap-tmp"
#define HLSNAP__OCI_LOCK_GC 0     /* shared: savers; exclusive: who removes blobs, or the lock file */
#define HLSNAP__OCI_LOCK_INDEX 1  /* exclusive, while index.json is read, merged and replaced */

typedef struct hlsnap__oci_store {
    int root, blobs, sha256, lock; /* directories and the lock file; -1: not open */
    bool made_root, made_blobs, made_sha256, made_lock, made_temp;
} hlsnap__oci_store;

static int hlsnap__oci_lock_try(int fd, int byte, int type, int command) {
    struct flock f;
    int r;
    memset(&f, 0, sizeof(f));
    f.l_type = (short)type;
    f.l_whence = SEEK_SET;
    f.l_start = byte;
    f.l_len = 1;
    do r = fcntl(fd, command, &f);
    while (r < 0 && errno == EINTR);
    return r;
}

static hlsnap_result hlsnap__oci_lock(const hlsnap__oci_store *store, int byte, int type, hlsnap_error *err) {
    if (hlsnap__oci_lock_try(store->lock, byte, type, HLSNAP__OCI_OFD_SETLKW) == 0) return HLSNAP_OK;
    return hlsnap__oci_os(err, errno, "lock", HLSNAP__OCI_LOCK);
}

static void hlsnap__oci_unlock(const hlsnap__oci_store *store, int byte) {
    hlsnap__oci_lock_try(store->lock, byte, F_UNLCK, HLSNAP__OCI_OFD_SETLK);
}

/* Opens a directory below at, making it where it is missing. */
static hlsnap_result hlsnap__oci_make_dir(int at, const char *name, int *fd, bool *made, hlsnap_error *err) {
    *made = mkdirat(at, name, 0700) == 0;
    if (!*made && errno != EEXIST) return hlsnap__oci_os(err, errno, "mkdir", name);
    *fd = openat(at, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    return *fd < 0 ? hlsnap__oci_os(err, errno, "open", name) : HLSNAP_OK;
}

/* Opens the layout's directory; -1 and HLSNAP_OK when there is none. */
static hlsnap_result hlsnap__oci_open_root(const char *dir, int *fd, hlsnap_error *err) {
    *fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return *fd < 0 && errno != ENOENT ? hlsnap__oci_os(err, errno, "open", dir) : HLSNAP_OK;
}

/* Opens the lock file and takes a saver's share of it. *stale: it was removed meanwhile by a save that failed. */
static hlsnap_result hlsnap__oci_lock_open(hlsnap__oci_store *store, bool *stale, hlsnap_error *err) {
    const int flags = O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK | O_NOCTTY;
    struct stat mine, named;
    hlsnap_result r;
    *stale = false;
    store->lock = openat(store->root, HLSNAP__OCI_LOCK, flags | O_EXCL, 0600);
    store->made_lock = store->lock >= 0;
    if (store->lock < 0 && errno == EEXIST) store->lock = openat(store->root, HLSNAP__OCI_LOCK, flags, 0600);
    *stale = store->lock < 0 && errno == ENOENT;
    if (*stale) return HLSNAP_OK;
    if (store->lock < 0) return hlsnap__oci_os(err, errno, "open", HLSNAP__OCI_LOCK);
    if (fstat(store->lock, &mine) != 0) return hlsnap__oci_os(err, errno, "stat", HLSNAP__OCI_LOCK);
    if (!S_ISREG(mine.st_mode))
        return hlsnap__fail(err, HLSNAP_ERR_FILE, 0, "%s: not a regular file", HLSNAP__OCI_LOCK);
    r = hlsnap__oci_lock(store, HLSNAP__OCI_LOCK_GC, F_RDLCK, err);
    if (r) return r;
    *stale = fstatat(store->root, HLSNAP__OCI_LOCK, &named, AT_SYMLINK_NOFOLLOW) != 0 || named.st_ino != mine.st_ino ||
             named.st_dev != mine.st_dev;
    return HLSNAP_OK;
}

/* Ends with the store. After a failure what this save made goes, when nobody else uses the layout: others take their share
   of the lock before they rely on anything, and who waits for it finds out that the file is gone. */
static void hlsnap__oci_store_close(const char *dir, hlsnap__oci_store *store, bool failed) {
    if (store->made_temp) unlinkat(store->root, HLSNAP__OCI_TEMP, AT_REMOVEDIR);
    if (failed && store->lock >= 0 &&
        hlsnap__oci_lock_try(store->lock, HLSNAP__OCI_LOCK_GC, F_WRLCK, HLSNAP__OCI_OFD_SETLK) == 0) {
        if (store->made_sha256) unlinkat(store->blobs, "sha256", AT_REMOVEDIR);
        if (store->made_blobs) unlinkat(store->root, "blobs", AT_REMOVEDIR);
        if (store->made_lock) unlinkat(store->root, HLSNAP__OCI_LOCK, 0);
    }
    if (failed && store->made_root) rmdir(dir); /* succeeds only when it is empty */
    if (store->lock >= 0) hlsnap__oci_unlock(store, HLSNAP__OCI_LOCK_GC);
    if (store->lock >= 0) close(store->lock);
    if (store->sha256 >= 0) close(store->sha256);
    if (store->blobs >= 0) close(store->blobs);
    if (store->root >= 0) close(store->root);
    store->root = store->blobs = store->sha256 = store->lock = -1;
}

static hlsnap_result hlsnap__oci_index_read(int root, hlsnap__json *index, bool *marked, hlsnap_error *err);

/* Checks what is there, before anything is written. */
static hlsnap_result hlsnap__oci_store_check(int root, hlsnap_error *err) {
    hlsnap__json index;
    bool marked;
    hlsnap_result r;
    memset(&index, 0, sizeof(index));
    r = hlsnap__oci_index_read(root, &index, &marked, err);
    hlsnap__json_close(&index);
    return r;
}

/* Opens a layout for a save: checks it, or makes its directory, then takes the saver's lock. */
static hlsnap_result hlsnap__oci_store_open(const char *dir, hlsnap__oci_store *store, hlsnap_error *err) {
    bool stale = true;
    hlsnap_result r = HLSNAP_OK;
    int i;
    for (i = 0; stale && i < 100; i++) {
        if (store->root >= 0) hlsnap__oci_store_close(dir, store, false);
        r = hlsnap__oci_open_root(dir, &store->root, err);
        if (r) return r;
        if (store->root >= 0) {
            r = hlsnap__oci_store_check(store->root, err);
        } else {
            store->made_root = mkdir(dir, 0700) == 0;
            if (!store->made_root && errno != EEXIST) return hlsnap__oci_os(err, errno, "mkdir", dir);
            store->root = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
            if (store->root < 0 && errno == ENOENT && !store->made_root) continue; /* made and unmade by another save */
            if (store->root < 0) return hlsnap__oci_os(err, errno, "open", dir);
        }
        if (!r) r = hlsnap__oci_lock_open(store, &stale, err);
        if (r) return r;
    }
    if (stale) return hlsnap__oci_os(err, ENOENT, "open", dir);
    r = hlsnap__oci_make_dir(store->root, "blobs", &store->blobs, &store->made_blobs, err);
    return r ? r : hlsnap__oci_make_dir(store->blobs, "sha256", &store->sha256, &store->made_sha256, err);
}

static hlsnap_result hlsnap__oci_fsync(int fd, const char *what, hlsnap_error *err) {
    int r;
    do r = fsync(fd);
    while (r < 0 && errno == EINTR);
    return r ? hlsnap__oci_os(err, errno, "fsync", what) : HLSNAP_OK;
}

/* ---- >>blobs: written without a name, named when they are complete and on the disk ---- */

#ifdef __O_TMPFILE
#define HLSNAP__OCI_O_TMPFILE (__O_TMPFILE | O_DIRECTORY)
#else
#define HLSNAP__OCI_O_TMPFILE (020000000 | O_DIRECTORY)
#endif
#define HLSNAP__OCI_AT_EMPTY_PATH 0x1000

typedef struct hlsnap__oci_blob {
    int fd;                    /* -1: none */
    char temp[64];             /* its name under the root for now, where there is no O_TMPFILE; else "" */
    char digest[72];
    uint64_t size;
    bool named;                /* this save gave it its name, and takes it back when it fails */
    bool shared;               /* a file of that name was there and hashed whole; these tell it again: */
    uint64_t dev, ino, ctime_s, ctime_ns;
} hlsnap__oci_blob;

/* A name that no other save uses. */
static void hlsnap__oci_temp_name(char *to, size_t cap, const char *dir) {
    hlsnap__format(to, cap, "%s.hlsnap-%ld-%llx.tmp", dir, (long)getpid(), (unsigned long long)hlsnap__now_ns());
}

/* A new empty file in the file system of directory at: without a name, or else in a directory of its own at the root, never
   beside the blobs, where tools take every name for a digest. */
static hlsnap_result hlsnap__oci_blob_create(hlsnap__oci_store *store, int at, hlsnap__oci_blob *b, hlsnap_error *err) {
    int i;
    b->fd = openat(at, ".", HLSNAP__OCI_O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (b->fd >= 0) return HLSNAP_OK;
    if (errno != EOPNOTSUPP && errno != EISDIR && errno != EINVAL && errno != ENOENT)
        return hlsnap__oci_os(err, errno, "create", "an unnamed file");
    for (i = 0; i < 100; i++) {
        if (mkdirat(store->root, HLSNAP__OCI_TEMP, 0700) != 0 && errno != EEXIST) break;
        store->made_temp = true;
        hlsnap__oci_temp_name(b->temp, sizeof(b->temp), HLSNAP__OCI_TEMP "/");
        b->fd = openat(store->root, b->temp, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
        if (b->fd >= 0) return HLSNAP_OK;
        b->temp[0] = 0;
        if (errno != EEXIST && errno != ENOENT) break; /* ENOENT: another save just removed the directory */
    }
    return hlsnap__oci_os(err, errno, "create", HLSNAP__OCI_TEMP);
}

/* Closes a file; takes back its name when the save failed. */
static void hlsnap__oci_blob_close(const hlsnap__oci_store *store, hlsnap__oci_blob *b, bool failed) {
    if (failed && b->named) unlinkat(store->sha256, b->digest + 7, 0);
    if (b->temp[0]) unlinkat(store->root, b->temp, 0);
    if (b->fd >= 0) close(b->fd);
    b->fd = -1;
    b->temp[0] = 0;
    b->named = false;
}

/* Gives the file a name that is not taken: 0, or -1 and errno. */
static int hlsnap__oci_link(const hlsnap__oci_store *store, hlsnap__oci_blob *b, int at, const char *name) {
    char path[40];
    if (b->temp[0]) {
        if (linkat(store->root, b->temp, at, name, 0) == 0) {
            if (unlinkat(store->root, b->temp, 0) == 0) b->temp[0] = 0;
            return 0;
        }
        if (errno != EPERM && errno != EOPNOTSUPP) return -1;
        if (syscall(SYS_renameat2, store->root, b->temp, at, name, 1) != 0) return -1; /* no hard links; NOREPLACE */
        b->temp[0] = 0;
        return 0;
    }
    hlsnap__format(path, sizeof(path), "/proc/self/fd/%d", b->fd);
    if (linkat(AT_FDCWD, path, at, name, AT_SYMLINK_FOLLOW) == 0) return 0;
    if (errno != ENOENT) return -1;
    return linkat(b->fd, "", at, name,
                  HLSNAP__OCI_AT_EMPTY_PATH); /* no /proc; takes CAP_DAC_READ_SEARCH on old kernels */
}

/* Gives the file a name, taken or not, in one step. */
static hlsnap_result hlsnap__oci_replace(const hlsnap__oci_store *store, hlsnap__oci_blob *b, int at, const char *name,
                                         hlsnap_error *err) {
    char temp[64];
    int i, r = -1;
    for (i = 0; !b->temp[0] && i < 100; i++) {
        hlsnap__oci_temp_name(temp, sizeof(temp), "");
        r = hlsnap__oci_link(store, b, store->root, temp);
        if (r == 0) memcpy(b->temp, temp, sizeof(temp));
        else if (errno != EEXIST) return hlsnap__oci_os(err, errno, "link", temp);
    }
    if (!b->temp[0] || renameat(store->root, b->temp, at, name) != 0) return hlsnap__oci_os(err, errno, "rename", name);
    b->temp[0] = 0;
    return HLSNAP_OK;
}

/* A small file, complete and on the disk. */
static hlsnap_result hlsnap__oci_file_write(hlsnap__oci_store *store, int at, hlsnap__oci_blob *b, const void *data,
                                            size_t n, hlsnap_error *err) {
    hlsnap_result r = hlsnap__oci_blob_create(store, at, b, err);
    b->size = n;
    if (!r) r = hlsnap__pwrite(b->fd, data, n, 0, err);
    return r ? r : hlsnap__oci_fsync(b->fd, "a new file", err);
}

/* An open file holds exactly the bytes of a digest. */
static hlsnap_result hlsnap__oci_hash_file(int fd, uint64_t size, const char *digest, hlsnap__sha256_lane lane,
                                           uint8_t *buffer, hlsnap_error *err) {
    hlsnap__sha256 sha;
    uint8_t sum[32];
    char text[72];
    uint64_t at;
    size_t n;
    hlsnap__sha256_init(&sha, lane);
    for (at = 0; at < size; at += n) {
        hlsnap_result r;
        n = size - at < HLSNAP__OCI_BATCH ? (size_t)(size - at) : HLSNAP__OCI_BATCH;
        r = hlsnap__pread(fd, buffer, n, at, err);
        if (r) return r;
        hlsnap__sha256_update(&sha, buffer, n);
    }
    hlsnap__sha256_final(&sha, sum);
    hlsnap__sha256_text(sum, text);
    if (strcmp(text, digest) == 0) return HLSNAP_OK;
    return hlsnap__fail(err, HLSNAP_ERR_DIGEST, 0, "blobs/sha256/%s: its content is %s", digest + 7, text);
}

/* Whether st is the file that was found to be a blob's equal. */
static bool hlsnap__oci_blob_same(const hlsnap__oci_blob *b, const struct stat *st) {
    return b->shared && S_ISREG(st->st_mode) && (uint64_t)st->st_dev == b->dev && (uint64_t)st->st_ino == b->ino &&
           (uint64_t)st->st_size == b->size && (uint64_t)st->st_ctim.tv_sec == b->ctime_s &&
           (uint64_t)st->st_ctim.tv_nsec == b->ctime_ns;
}

/* Looks whether the blob is in the layout already, and sound: then b->shared. Anything else will be replaced. */
static void hlsnap__oci_blob_look(const hlsnap__oci_store *store, hlsnap__oci_blob *b, hlsnap__sha256_lane lane,
                                  uint8_t *buffer) {
    hlsnap_error unused;
    struct stat st;
    int fd = openat(store->sha256, b->digest + 7, HLSNAP__OCI_READ);
    b->shared = false;
    if (fd < 0) return;
    if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && (uint64_t)st.st_size == b->size) {
        b->dev = (uint64_t)st.st_dev;
        b->ino = (uint64_t)st.st_ino;
        b->ctime_s = (uint64_t)st.st_ctim.tv_sec;
        b->ctime_ns = (uint64_t)st.st_ctim.tv_nsec;
        b->shared = hlsnap__oci_hash_file(fd, b->size, b->digest, lane, buffer, &unused) == HLSNAP_OK &&
                    hlsnap__oci_fsync(fd, b->digest, &unused) == HLSNAP_OK; /* who wrote it may not have done that */
    }
    close(fd);
}

/* Makes the blob's name stand for its content. Under the index lock. */
static hlsnap_result hlsnap__oci_blob_commit(const hlsnap__oci_store *store, hlsnap__oci_blob *b,
                                             hlsnap__sha256_lane lane, uint8_t *buffer, hlsnap_error *err) {
    const char *name = b->digest + 7;
    struct stat st;
    if (fstatat(store->sha256, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && hlsnap__oci_blob_same(b, &st)) return HLSNAP_OK;
    if (hlsnap__oci_link(store, b, store->sha256, name) == 0) {
        b->named = true;
        return HLSNAP_OK;
    }
    if (errno != EEXIST) return hlsnap__oci_os(err, errno, "link", name);
    hlsnap__oci_blob_look(store, b, lane, buffer); /* came meanwhile, changed, or is not sound */
    return b->shared ? HLSNAP_OK : hlsnap__oci_replace(store, b, store->sha256, name, err);
}

/* ---- >>index: oci-layout, index.json, descriptors ---- */

typedef struct hlsnap__oci_ref { /* a descriptor; points into its document */
    const char *type, *digest;
    uint64_t size;
} hlsnap__oci_ref;

/* "type/subtype" of RFC 6838, no parameters. */
static bool hlsnap__oci_media_type_ok(const char *s) {
    static const char first[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    static const char rest[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789!#$&^_.+-";
    int part;
    for (part = 0; part < 2; part++) {
        size_t n = strspn(s, rest);
        if (n < 1 || n > 127 || !strspn(s, first) || s[n] != (part ? 0 : '/')) return false;
        s += n + 1;
    }
    return true;
}

/* The digest of any descriptor; only sha256 ones name files that this code opens. */
static bool hlsnap__oci_digest_ok(const char *s) {
    static const char word[] = "abcdefghijklmnopqrstuvwxyz0123456789";
    static const char encoded[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789=_-";
    const char *at = s;
    size_t n;
    if (strncmp(s, "sha256:", 7) == 0) return hlsnap__sha256_text_ok(s);
    for (;;) {
        n = strspn(at, word);
        if (!n) return false;
        at += n;
        if (!*at || !strchr("+._-", *at)) break;
        at++;
    }
    if (*at++ != ':') return false;
    n = strspn(at, encoded);
    return n > 0 && !at[n];
}

/* Annotations are strings, or not there. */
static hlsnap_result hlsnap__oci_annotations_check(const hlsnap__json *d, const cJSON *o, const char *path,
                                                   hlsnap_error *err) {
    const cJSON *a = hlsnap__json_get(o, "annotations"), *c;
    if (!a) return HLSNAP_OK;
    if (!cJSON_IsObject(a)) return hlsnap__json_bad(d, path, "annotations", "an object", a, err);
    for (c = a->child; c; c = c->next)
        if (!cJSON_IsString(c)) return hlsnap__json_bad(d, path, "annotations", "strings only", c, err);
    return HLSNAP_OK;
}

static hlsnap_result hlsnap__oci_ref_read(const hlsnap__json *d, const cJSON *o, const char *path, hlsnap__oci_ref *out,
                                          hlsnap_error *err) {
    hlsnap_result r;
    if (!cJSON_IsObject(o)) return hlsnap__json_bad(d, path, "", "a descriptor", o, err);
    r = hlsnap__json_string(d, o, path, "mediaType", &out->type, err);
    if (!r && !hlsnap__oci_media_type_ok(out->type))
        r = hlsnap__json_bad(d, path, "mediaType", "type/subtype", hlsnap__json_get(o, "mediaType"), err);
    if (!r) r = hlsnap__json_string(d, o, path, "digest", &out->digest, err);
    if (!r && !hlsnap__oci_digest_ok(out->digest))
        r = hlsnap__json_bad(d, path, "digest", "sha256:<64 lowercase hex>", hlsnap__json_get(o, "digest"), err);
    if (!r) r = hlsnap__json_int(d, o, path, "size", HLSNAP__JSON_INT_MAX, &out->size, err);
    return r ? r : hlsnap__oci_annotations_check(d, o, path, err);
}

/* A descriptor of a file that is about to be opened: sha256, and of a size from min to max. */
static hlsnap_result hlsnap__oci_ref_usable(const hlsnap__json *d, const char *path, const hlsnap__oci_ref *ref,
                                            uint64_t min, uint64_t max, hlsnap_error *err) {
    char shown[80];
    hlsnap__printable(shown, sizeof(shown), ref->digest, strlen(ref->digest), false);
    if (!hlsnap__sha256_text_ok(ref->digest))
        return hlsnap__fail(err, d->code, 0, "%s: %sdigest: expected sha256:<64 lowercase hex>, found '%s'", d->file,
                            path, shown);
    if (ref->size >= min && ref->size <= max) return HLSNAP_OK;
    return hlsnap__fail(err, d->code, 0, "%s: %ssize: expected %llu to %llu, found %llu", d->file, path,
                        (unsigned long long)min, (unsigned long long)max, (unsigned long long)ref->size);
}

/* schemaVersion 2, and mediaType, where there is one, as given: what index and manifest have in common. */
static hlsnap_result hlsnap__oci_schema_check(const hlsnap__json *d, const char *type, hlsnap_error *err) {
    const cJSON *version = hlsnap__json_get(d->root, "schemaVersion"), *found = hlsnap__json_get(d->root, "mediaType");
    if (!cJSON_IsNumber(version) || version->valuedouble < 2 || version->valuedouble > 2)
        return hlsnap__json_bad(d, "", "schemaVersion", "2", version, err);
    if (found && (!cJSON_IsString(found) || strcmp(found->valuestring, type) != 0))
        return hlsnap__json_bad(d, "", "mediaType", type, found, err);
    return hlsnap__oci_annotations_check(d, d->root, "", err);
}

/* Checks oci-layout. */
static hlsnap_result hlsnap__oci_marker_read(int root, hlsnap_error *err) {
    hlsnap__json d;
    const cJSON *v;
    hlsnap_result r;
    memset(&d, 0, sizeof(d));
    r = hlsnap__oci_read_json(root, "oci-layout", HLSNAP_ERR_LAYOUT, &d, err);
    v = r ? NULL : hlsnap__json_get(d.root, "imageLayoutVersion");
    if (!r && (!cJSON_IsString(v) || strcmp(v->valuestring, "1.0.0") != 0))
        r = hlsnap__json_bad(&d, "", "imageLayoutVersion", "'1.0.0'", v, err);
    hlsnap__json_close(&d);
    return r;
}

/* Reads index.json and checks its form: every entry is a descriptor. */
static hlsnap_result hlsnap__oci_entries_read(int root, hlsnap__json *index, hlsnap_error *err) {
    const cJSON *all, *e;
    hlsnap__oci_ref ref;
    char path[32];
    uint32_t i = 0;
    hlsnap_result r = hlsnap__oci_read_json(root, "index.json", HLSNAP_ERR_INDEX, index, err);
    if (!r) r = hlsnap__oci_schema_check(index, HLSNAP__OCI_INDEX_TYPE, err);
    if (r) return r;
    all = hlsnap__json_get(index->root, "manifests");
    if (!cJSON_IsArray(all) && !cJSON_IsNull(all))
        return hlsnap__json_bad(index, "", "manifests", "an array", all, err);
    for (e = all->child; !r && e; e = e->next, i++) {
        hlsnap__format(path, sizeof(path), "manifests[%u].", i);
        r = hlsnap__oci_ref_read(index, e, path, &ref, err);
    }
    return r;
}

static bool hlsnap__oci_exists(int root, const char *name) {
    struct stat st;
    return fstatat(root, name, &st, AT_SYMLINK_NOFOLLOW) == 0 || errno != ENOENT;
}

/* What a save finds: a sound layout; one without an index yet; or nothing (*marked is false). */
static hlsnap_result hlsnap__oci_index_read(int root, hlsnap__json *index, bool *marked, hlsnap_error *err) {
    bool indexed = hlsnap__oci_exists(root, "index.json");
    hlsnap_result r = HLSNAP_OK;
    *marked = hlsnap__oci_exists(root, "oci-layout");
    if (*marked || indexed) r = hlsnap__oci_marker_read(root, err);
    return r || !indexed ? r : hlsnap__oci_entries_read(root, index, err);
}

/* The entry's tag, or NULL. */
static const char *hlsnap__oci_tag_of(const cJSON *entry) {
    const cJSON *tag = hlsnap__json_get(hlsnap__json_get(entry, "annotations"), HLSNAP__OCI_REF_NAME);
    return tag ? tag->valuestring : NULL;
}

static bool hlsnap__oci_has_tag(const cJSON *entry, const char *tag) {
    const char *found = hlsnap__oci_tag_of(entry);
    return found && strcmp(found, tag) == 0;
}

static const char *hlsnap__oci_digest_of(const cJSON *entry) { return hlsnap__json_get(entry, "digest")->valuestring; }

/* The registries' grammar, [A-Za-z0-9_][A-Za-z0-9._-]{0,127}: what skopeo, oras and crane all can address. */
static bool hlsnap__oci_tag_ok(const char *tag) {
    static const char rest[] = ".-ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_";
    size_t n = strspn(tag, rest);
    return n >= 1 && n <= 128 && !tag[n] && tag[0] != '.' && tag[0] != '-';
}

/* Fills err for a ref that the index does not list, with the tags that it does. */
static hlsnap_result hlsnap__oci_not_found(const hlsnap__json *index, const char *ref, hlsnap_error *err) {
    const cJSON *e;
    char tags[300] = "";
    size_t n = 0;
    for (e = hlsnap__json_get(index->root, "manifests")->child; e && n + 2 < sizeof(tags); e = e->next) {
        const char *tag = hlsnap__oci_tag_of(e);
        if (!tag) continue;
        tags[n++] = ' ';
        n += hlsnap__printable(tags + n, sizeof(tags) - n, tag, strlen(tag), false);
    }
    tags[n] = 0;
    return hlsnap__fail(err, HLSNAP_ERR_NOT_FOUND, 0, "index.json: no %s '%s'; tags:%s",
                        strchr(ref, ':') ? "digest" : "tag", ref, n ? tags : " none");
}

/* The entry that a tag or digest means, and its number. */
static hlsnap_result hlsnap__oci_index_find(const hlsnap__json *index, const char *ref, const cJSON **entry,
                                            uint32_t *number, hlsnap_error *err) {
    bool digest = strchr(ref, ':') != NULL;
    const cJSON *e;
    uint32_t i = 0;
    *entry = NULL;
    for (e = hlsnap__json_get(index->root, "manifests")->child; e; e = e->next, i++) {
        if (digest ? strcmp(hlsnap__oci_digest_of(e), ref) != 0 : !hlsnap__oci_has_tag(e, ref)) continue;
        if (*entry) return hlsnap__fail(err, HLSNAP_ERR_AMBIGUOUS, 0, "index.json: tag '%s' is listed twice", ref);
        *entry = e;
        *number = i;
        if (digest) break;
    }
    return *entry ? HLSNAP_OK : hlsnap__oci_not_found(index, ref, err);
}

/* What becomes of an entry when tag moves to manifest m. */
typedef enum hlsnap__oci_fate {
    HLSNAP__OCI_KEEP,
    HLSNAP__OCI_IS_NEW,
    HLSNAP__OCI_UNTAG,
    HLSNAP__OCI_DROP
} hlsnap__oci_fate;

static hlsnap__oci_fate hlsnap__oci_entry_fate(const cJSON *all, const cJSON *entry, const char *tag,
                                               const hlsnap__oci_blob *m, bool have_new) {
    const char *digest = hlsnap__oci_digest_of(entry);
    const cJSON *e;
    bool before = true;
    if (!hlsnap__oci_has_tag(entry, tag)) return HLSNAP__OCI_KEEP;
    if (strcmp(digest, m->digest) == 0) {
        const char *type = hlsnap__json_get(entry, "mediaType")->valuestring;
        bool right =
            hlsnap__json_get(entry, "size")->valuedouble == (double)m->size && !strcmp(type, HLSNAP__OCI_MANIFEST_TYPE);
        return right && !have_new ? HLSNAP__OCI_IS_NEW : HLSNAP__OCI_DROP;
    }
    for (e = all->child; e; e = e->next) {
        if (e == entry) before = false;
        else if (strcmp(hlsnap__oci_digest_of(e), digest) == 0 &&
                 (!hlsnap__oci_tag_of(e) || (before && hlsnap__oci_has_tag(e, tag))))
            return HLSNAP__OCI_DROP;
    }
    return HLSNAP__OCI_UNTAG;
}

/* Writes the array of entries; those that stay do so byte by byte. */
static void hlsnap__oci_entries_write(hlsnap__text *t, const cJSON *all, hlsnap__json_span text, const char *tag,
                                      const hlsnap__oci_blob *m) {
    static const char *const ref_name[] = {"annotations", HLSNAP__OCI_REF_NAME, NULL};
    hlsnap__json_scan s = hlsnap__json_start(text.at, text.size);
    hlsnap__json_span value;
    const cJSON *e;
    bool have_new = false, first = true;
    hlsnap__text_raw(t, "[", 1);
    for (e = all ? all->child : NULL; e; e = e->next) {
        hlsnap__oci_fate fate = hlsnap__oci_entry_fate(all, e, tag, m, have_new);
        hlsnap__json_next(&s, NULL, &value);
        if (fate == HLSNAP__OCI_DROP) continue;
        if (!first) hlsnap__text_raw(t, ",", 1);
        first = false;
        if (fate == HLSNAP__OCI_IS_NEW) have_new = true;
        if (fate == HLSNAP__OCI_UNTAG) hlsnap__text_without(t, e, value, ref_name);
        else hlsnap__text_raw(t, value.at, value.size);
    }
    if (!have_new)
        hlsnap__text_add(t,
                         "%s{\"mediaType\":\"" HLSNAP__OCI_MANIFEST_TYPE
                         "\",\"digest\":\"%s\",\"size\":%llu,\"annotations\":{\"" HLSNAP__OCI_REF_NAME
                         "\":\"%s\"},\"artifactType\":\"" HLSNAP__OCI_ARTIFACT_TYPE "\"}",
                         first ? "" : ",", m->digest, (unsigned long long)m->size, tag);
    hlsnap__text_raw(t, "]", 1);
}

/* Writes the index that follows `old` (no document: the first one) when tag moves to manifest m. */
static void hlsnap__oci_index_write(hlsnap__text *t, const hlsnap__json *old, const char *tag,
                                    const hlsnap__oci_blob *m) {
    hlsnap__json_scan s = hlsnap__json_start(old->text, old->size);
    hlsnap__json_span name = {"", 0}, value = {"", 0};
    const cJSON *c;
    if (!old->root) {
        hlsnap__text_add(t, "{\"schemaVersion\":2,\"mediaType\":\"" HLSNAP__OCI_INDEX_TYPE "\",\"manifests\":");
        hlsnap__oci_entries_write(t, NULL, value, tag, m);
    }
    for (c = old->root ? old->root->child : NULL; c; c = c->next) {
        hlsnap__json_next(&s, &name, &value);
        hlsnap__text_raw(t, c == old->root->child ? "{" : ",", 1);
        hlsnap__text_raw(t, name.at, name.size);
        hlsnap__text_raw(t, ":", 1);
        if (strcmp(c->string, "manifests") == 0) hlsnap__oci_entries_write(t, c, value, tag, m);
        else hlsnap__text_raw(t, value.at, value.size);
    }
    hlsnap__text_raw(t, "}", 1);
}

/* ---- >>manifest ---- */

#define HLSNAP__OCI_MAX_SIZE (HLSNAP__MAX_PAGES * HLSNAP__PAGE) /* bytes of a memory layer */

static uint64_t hlsnap__oci_chunks_size(uint64_t bytes) {
    return (bytes + HLSNAP__OCI_CHUNK - 1) / HLSNAP__OCI_CHUNK * 32;
}

/* One line, this order, sorted annotations, ASCII without < > &: a fixed point of Go's marshaller. */
static void hlsnap__oci_manifest_write(hlsnap__text *t, const hlsnap__guest *g, const hlsnap__oci_blob *memory,
                                       const hlsnap__oci_blob *chunks, const hlsnap__oci_blob *config) {
    static const char layer[] = "%s{\"mediaType\":\"%s\",\"digest\":\"%s\",\"size\":%llu,\"annotations\":{\""
                                HLSNAP__OCI_TITLE "\":\"layer0.%s\"}}";
    hlsnap__text_add(t,
                     "{\"schemaVersion\":2,\"mediaType\":\"" HLSNAP__OCI_MANIFEST_TYPE
                     "\",\"artifactType\":\"" HLSNAP__OCI_ARTIFACT_TYPE
                     "\",\"config\":{\"mediaType\":\"" HLSNAP__OCI_CONFIG_TYPE
                     "\",\"digest\":\"%s\",\"size\":%llu},\"layers\":[",
                     config->digest, (unsigned long long)config->size);
    hlsnap__text_add(t, layer, "", HLSNAP__OCI_MEMORY_TYPE, memory->digest, (unsigned long long)memory->size, "mem");
    hlsnap__text_add(t, layer, ",", HLSNAP__OCI_CHUNKS_TYPE, chunks->digest, (unsigned long long)chunks->size,
                     "chunks");
    hlsnap__text_add(t, "],\"annotations\":{\"dev.hlsnap.abi\":\"%d\",\"dev.hlsnap.arch\":\"" HLSNAP__OCI_ARCH "\",",
                     HLSNAP_ABI_VERSION);
    if (g->build_id[0]) hlsnap__text_add(t, "\"dev.hlsnap.build-id\":\"%s\",", g->build_id);
    hlsnap__text_add(t, "\"dev.hlsnap.library\":\"" HLSNAP_VERSION_STRING "\",\"dev.hlsnap.version\":\"%d\"}}",
                     HLSNAP_SNAPSHOT_VERSION);
}

typedef struct hlsnap__oci_manifest { /* points into its document */
    hlsnap__oci_ref config;
    uint32_t num_layers;
    hlsnap__oci_ref memory[HLSNAP__MAX_LAYERS], chunks[HLSNAP__MAX_LAYERS];
} hlsnap__oci_manifest;

/* Memory layer i and the chunk list behind it. */
static hlsnap_result hlsnap__oci_layers_read(const hlsnap__json *d, const cJSON *first, uint32_t i,
                                             hlsnap__oci_manifest *m, hlsnap_error *err) {
    hlsnap__oci_ref *memory = &m->memory[i], *chunks = &m->chunks[i];
    char path[32], next[32];
    hlsnap_result r;
    uint64_t want;
    hlsnap__format(path, sizeof(path), "layers[%u].", 2 * i);
    hlsnap__format(next, sizeof(next), "layers[%u].", 2 * i + 1);
    r = hlsnap__oci_ref_read(d, first, path, memory, err);
    if (!r) r = hlsnap__oci_ref_read(d, first->next, next, chunks, err);
    if (!r && strcmp(memory->type, HLSNAP__OCI_MEMORY_TYPE) != 0)
        r = hlsnap__json_bad(d, path, "mediaType", HLSNAP__OCI_MEMORY_TYPE, hlsnap__json_get(first, "mediaType"), err);
    if (!r && strcmp(chunks->type, HLSNAP__OCI_CHUNKS_TYPE) != 0)
        r = hlsnap__json_bad(d, next, "mediaType", HLSNAP__OCI_CHUNKS_TYPE, hlsnap__json_get(first->next, "mediaType"),
                             err);
    if (!r) r = hlsnap__oci_ref_usable(d, path, memory, HLSNAP__PAGE, HLSNAP__OCI_MAX_SIZE, err);
    if (!r && memory->size % HLSNAP__PAGE)
        r = hlsnap__json_bad(d, path, "size", "a multiple of 4096", hlsnap__json_get(first, "size"), err);
    want = r ? 0 : hlsnap__oci_chunks_size(memory->size);
    return r ? r : hlsnap__oci_ref_usable(d, next, chunks, want, want, err);
}

static hlsnap_result hlsnap__oci_manifest_read(const hlsnap__json *d, hlsnap__oci_manifest *m, hlsnap_error *err) {
    const cJSON *artifact = hlsnap__json_get(d->root, "artifactType"), *layer = NULL;
    hlsnap__json foreign = *d; /* the same document, for violations that mean "not ours" */
    uint32_t i, num = 0;
    hlsnap_result r = hlsnap__oci_schema_check(d, HLSNAP__OCI_MANIFEST_TYPE, err);
    foreign.code = HLSNAP_ERR_MEDIA_TYPE;
    if (!r) r = hlsnap__oci_ref_read(d, hlsnap__json_get(d->root, "config"), "config.", &m->config, err);
    if (r) return r;
    if (strcmp(m->config.type, HLSNAP__OCI_CONFIG_TYPE) != 0)
        return hlsnap__json_bad(&foreign, "config.", "mediaType", HLSNAP__OCI_CONFIG_TYPE,
                                hlsnap__json_get(hlsnap__json_get(d->root, "config"), "mediaType"), err);
    if (artifact && (!cJSON_IsString(artifact) || strcmp(artifact->valuestring, HLSNAP__OCI_ARTIFACT_TYPE) != 0))
        return hlsnap__json_bad(&foreign, "", "artifactType", HLSNAP__OCI_ARTIFACT_TYPE, artifact, err);
    r = hlsnap__oci_ref_usable(d, "config.", &m->config, 1, HLSNAP__OCI_JSON_MAX, err);
    if (!r) r = hlsnap__json_array(d, d->root, "", "layers", 2 * HLSNAP__MAX_LAYERS, &layer, &num, err);
    if (r) return r;
    if (num == 0 || num % 2)
        return hlsnap__fail(err, d->code, 0, "%s: layers: expected pairs of memory and chunks, found %u layers",
                            d->file, num);
    m->num_layers = num / 2;
    for (i = 0; !r && i < m->num_layers; i++, layer = layer->next->next)
        r = hlsnap__oci_layers_read(d, layer, i, m, err);
    return r;
}

/* ---- >>config: everything about a snapshot but its bytes; docs/snapshot-format.md "Config" ---- */

/* Features by name, sorted. */
static void hlsnap__oci_features_write(hlsnap__text *t, uint64_t features) {
    const char *last = "", *best;
    uint32_t i, num;
    for (num = 0;; num++, last = best) {
        best = NULL;
        for (i = 0; i < HLSNAP__NUM_CPU_FEATURES; i++) {
            const char *name = hlsnap__cpu_feature_names[i];
            if (features >> i & 1 && strcmp(name, last) > 0 && (!best || strcmp(name, best) < 0)) best = name;
        }
        if (!best) return;
        hlsnap__text_add(t, "%s\"%s\"", num ? "," : "", best);
    }
}

static void hlsnap__oci_decls_write(hlsnap__text *t, const char *name, const hlsnap__decl *rows, uint32_t num) {
    uint32_t i;
    hlsnap__text_add(t, ",\"%s\":[", name);
    for (i = 0; i < num; i++)
        hlsnap__text_add(t, "%s{\"name\":\"%s\",\"signature\":\"%s\"}", i ? "," : "", rows[i].name, rows[i].text);
    hlsnap__text_raw(t, "]", 1);
}

/* Bytes that a config of so many extents can take. */
static size_t hlsnap__oci_config_bound(const hlsnap__guest *g, uint32_t num_extents) {
    return 4096 + g->layout.num_regions * (size_t)100 + num_extents * (size_t)48 +
           ((size_t)g->contract.num_exports + g->contract.num_imports) * (sizeof(hlsnap__decl) + 32);
}

static void hlsnap__oci_config_write(hlsnap__text *t, const hlsnap_snapshot *s, const hlsnap__extent *extents,
                                     uint32_t num, uint64_t layer_pages) {
    const hlsnap__guest *g = s->guest;
    uint32_t i;
    hlsnap__text_add(t,
                     "{\"version\":%d,\"abi\":%d,\"arch\":\"" HLSNAP__OCI_ARCH
                     "\",\"page_size\":%u,\"library\":\"" HLSNAP_VERSION_STRING "\",\"guest\":{\"name\":",
                     HLSNAP_SNAPSHOT_VERSION, HLSNAP_ABI_VERSION, HLSNAP__PAGE);
    hlsnap__text_string(t, g->name);
    hlsnap__text_add(t, ",\"build_id\":\"%s\",\"elf_entry\":\"0x%llx\",\"load_address\":\"0x%llx\"}", g->build_id,
                     (unsigned long long)g->elf_entry, (unsigned long long)g->load_address);
    hlsnap__text_add(t, ",\"entry\":\"0x%llx\",\"module\":\"0x%llx\",\"tls_size\":\"0x%llx\"",
                     (unsigned long long)g->entry, (unsigned long long)g->module, (unsigned long long)g->tls_size);
    hlsnap__text_add(t, ",\"window\":{\"base\":\"0x%llx\",\"pages\":%llu},\"regions\":[",
                     (unsigned long long)g->layout.base, (unsigned long long)g->layout.pages);
    for (i = 0; i < g->layout.num_regions; i++) {
        const hlsnap__region *r = &g->layout.regions[i];
        hlsnap__text_add(t, "%s{\"kind\":\"%s\",\"gva\":\"0x%llx\",\"pages\":%llu}", i ? "," : "",
                         hlsnap__kind_names[r->kind], (unsigned long long)r->gva, (unsigned long long)r->pages);
    }
    hlsnap__text_raw(t, "]", 1);
    hlsnap__oci_decls_write(t, "exports", g->contract.exports, g->contract.num_exports);
    hlsnap__oci_decls_write(t, "imports", g->contract.imports, g->contract.num_imports);
    hlsnap__text_add(t, ",\"features\":[");
    hlsnap__oci_features_write(t, g->features);
    hlsnap__text_add(t, "],\"generation\":\"0x%llx\",\"layers\":[%llu],\"extents\":[",
                     (unsigned long long)s->generation, (unsigned long long)layer_pages);
    for (i = 0; i < num && t->size <= t->cap; i++)
        hlsnap__text_add(t, "%s[%u,%u,%u,%u]", i ? "," : "", extents[i].page, extents[i].pages, extents[i].layer,
                         extents[i].layer_page);
    hlsnap__text_raw(t, "]}", 2);
}

/* What a config holds beside the guest. */
typedef struct hlsnap__oci_config {
    hlsnap__guest *guest;
    uint64_t generation;
    uint32_t num_layers, num_extents;
    uint64_t layer_pages[HLSNAP__MAX_LAYERS];
    hlsnap__extent *extents;
} hlsnap__oci_config;

/* Whether this build and machine can take the snapshot at all; asked before anything that a later version may change. */
static hlsnap_result hlsnap__oci_config_gate(const hlsnap__json *d, hlsnap_error *err) {
    uint64_t version = 0, abi = 0, page = 0;
    const char *arch = "";
    char shown[40];
    hlsnap_result r = hlsnap__json_int(d, d->root, "", "version", HLSNAP__JSON_INT_MAX, &version, err);
    if (!r) r = hlsnap__json_int(d, d->root, "", "abi", HLSNAP__JSON_INT_MAX, &abi, err);
    if (!r && (version != HLSNAP_SNAPSHOT_VERSION || abi != HLSNAP_ABI_VERSION))
        r = hlsnap__fail(err, HLSNAP_ERR_VERSION, 0, "%s: format %llu with ABI %llu, this is format %d with ABI %d",
                         d->file, (unsigned long long)version, (unsigned long long)abi, HLSNAP_SNAPSHOT_VERSION,
                         HLSNAP_ABI_VERSION);
    if (!r) r = hlsnap__json_string(d, d->root, "", "arch", &arch, err);
    if (!r) r = hlsnap__json_int(d, d->root, "", "page_size", HLSNAP__JSON_INT_MAX, &page, err);
    hlsnap__printable(shown, sizeof(shown), arch, strlen(arch), false);
    if (!r && (strcmp(arch, HLSNAP__OCI_ARCH) != 0 || page != HLSNAP__PAGE))
        r = hlsnap__fail(err, HLSNAP_ERR_ARCH, 0,
                         "%s: arch '%s' with pages of %llu bytes, this is " HLSNAP__OCI_ARCH " with %u", d->file, shown,
                         (unsigned long long)page, HLSNAP__PAGE);
    return r;
}

/* Text of at most cap - 1 bytes without control characters. */
static hlsnap_result hlsnap__oci_name_read(const hlsnap__json *d, const cJSON *o, const char *path, const char *name,
                                           char *out, size_t cap, hlsnap_error *err) {
    const char *text = "", *p;
    hlsnap_result r = hlsnap__json_string(d, o, path, name, &text, err);
    if (r) return r;
    for (p = text; *p && (unsigned char)*p >= 0x20 && *p != 0x7f; p++) {}
    if (*p || strlen(text) >= cap)
        return hlsnap__json_bad(d, path, name, "a short text without control characters", hlsnap__json_get(o, name),
                                err);
    memcpy(out, text, strlen(text) + 1);
    return HLSNAP_OK;
}

static hlsnap_result hlsnap__oci_guest_read(const hlsnap__json *d, hlsnap__guest *g, hlsnap_error *err) {
    static const char *const fields[] = {"name", "build_id", "elf_entry", "load_address", NULL};
    const cJSON *o = hlsnap__json_get(d->root, "guest");
    char library[64];
    hlsnap_result r = hlsnap__json_exactly(d, o, "guest.", fields, err);
    if (!r) r = hlsnap__oci_name_read(d, d->root, "", "library", library, sizeof(library), err);
    if (!r) r = hlsnap__oci_name_read(d, o, "guest.", "name", g->name, sizeof(g->name), err);
    if (!r) r = hlsnap__oci_name_read(d, o, "guest.", "build_id", g->build_id, sizeof(g->build_id), err);
    if (!r && g->build_id[strspn(g->build_id, "0123456789abcdef")])
        r = hlsnap__json_bad(d, "guest.", "build_id", "lowercase hex", hlsnap__json_get(o, "build_id"), err);
    if (!r) r = hlsnap__json_hex(d, o, "guest.", "elf_entry", &g->elf_entry, err);
    if (!r) r = hlsnap__json_hex(d, o, "guest.", "load_address", &g->load_address, err);
    if (!r) r = hlsnap__json_hex(d, d->root, "", "entry", &g->entry, err);
    if (!r) r = hlsnap__json_hex(d, d->root, "", "module", &g->module, err);
    return r ? r : hlsnap__json_hex(d, d->root, "", "tls_size", &g->tls_size, err);
}

static hlsnap_result hlsnap__oci_region_read(const hlsnap__json *d, const cJSON *o, const char *path,
                                             hlsnap__region *out, hlsnap_error *err) {
    static const char *const fields[] = {"kind", "gva", "pages", NULL};
    const char *kind = "";
    hlsnap_result r = hlsnap__json_exactly(d, o, path, fields, err);
    if (!r) r = hlsnap__json_string(d, o, path, "kind", &kind, err);
    if (r) return r;
    for (out->kind = 0; out->kind < HLSNAP__NUM_KINDS && strcmp(hlsnap__kind_names[out->kind], kind) != 0;
         out->kind++) {
    }
    if (out->kind == HLSNAP__NUM_KINDS)
        return hlsnap__json_bad(d, path, "kind", "a kind of region", hlsnap__json_get(o, "kind"), err);
    r = hlsnap__json_hex(d, o, path, "gva", &out->gva, err);
    return r ? r : hlsnap__json_int(d, o, path, "pages", HLSNAP__MAX_PAGES, &out->pages, err);
}

static hlsnap_result hlsnap__oci_layout_read(const hlsnap__json *d, hlsnap__layout *l, hlsnap_error *err) {
    static const char *const fields[] = {"base", "pages", NULL};
    const cJSON *window = hlsnap__json_get(d->root, "window"), *o = NULL;
    char path[32];
    uint32_t i;
    hlsnap_result r = hlsnap__json_exactly(d, window, "window.", fields, err);
    if (!r) r = hlsnap__json_hex(d, window, "window.", "base", &l->base, err);
    if (!r) r = hlsnap__json_int(d, window, "window.", "pages", HLSNAP__MAX_PAGES, &l->pages, err);
    if (!r) r = hlsnap__json_array(d, d->root, "", "regions", HLSNAP__MAX_REGIONS, &o, &l->num_regions, err);
    for (i = 0; !r && o; o = o->next, i++) {
        hlsnap__format(path, sizeof(path), "regions[%u].", i);
        r = hlsnap__oci_region_read(d, o, path, &l->regions[i], err);
    }
    return r;
}

/* Gives a failure of the core the code and the place of this document. */
static hlsnap_result hlsnap__oci_refuse(const hlsnap__json *d, const char *path, hlsnap_error *err) {
    char text[400];
    hlsnap__format(text, sizeof(text), "%.399s", err->msg);
    return hlsnap__fail(err, err->code == HLSNAP_ERR_MEMORY ? HLSNAP_ERR_MEMORY : d->code, 0, "%s: %s%s", d->file, path,
                        text);
}

static hlsnap_result hlsnap__oci_decls_read(const hlsnap__json *d, const char *name, hlsnap__decl **rows, uint32_t *num,
                                            hlsnap_error *err) {
    static const char *const fields[] = {"name", "signature", NULL};
    const cJSON *o = NULL;
    char path[40];
    uint32_t i;
    hlsnap_result r = hlsnap__json_array(d, d->root, "", name, HLSNAP_MAX_FUNCTIONS, &o, num, err);
    if (r) return r;
    *rows = (hlsnap__decl *)hlsnap__alloc(*num, sizeof(**rows), err);
    if (!*rows) return HLSNAP_ERR_MEMORY;
    for (i = 0; !r && o; o = o->next, i++) {
        const char *function = "", *signature = "";
        hlsnap__format(path, sizeof(path), "%s[%u].", name, i);
        r = hlsnap__json_exactly(d, o, path, fields, err);
        if (!r) r = hlsnap__json_string(d, o, path, "name", &function, err);
        if (!r) r = hlsnap__json_string(d, o, path, "signature", &signature, err);
        if (!r && hlsnap__decl_parse(&(*rows)[i], function, strlen(function), signature, strlen(signature), err))
            r = hlsnap__oci_refuse(d, path, err);
    }
    return r;
}

/* Names of features, ascending; one that this build does not know is one that this machine cannot be shown to have. */
static hlsnap_result hlsnap__oci_features_read(const hlsnap__json *d, uint64_t *features, hlsnap_error *err) {
    const cJSON *o = NULL;
    const char *last = "";
    char missing[256];
    uint64_t have = hlsnap__cpu_features();
    size_t n = 0;
    uint32_t i, num;
    hlsnap_result r = hlsnap__json_array(d, d->root, "", "features", 256, &o, &num, err);
    for (missing[0] = 0; !r && o; o = o->next) {
        const char *name = cJSON_IsString(o) ? o->valuestring : "";
        size_t size = strlen(name);
        if (size < 1 || size > 31 || strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789_") != size ||
            strcmp(name, last) <= 0)
            return hlsnap__json_bad(d, "", "features", "names of CPU features, ascending", o, err);
        last = name;
        for (i = 0; i < HLSNAP__NUM_CPU_FEATURES && strcmp(hlsnap__cpu_feature_names[i], name) != 0; i++) {}
        if (i < HLSNAP__NUM_CPU_FEATURES) *features |= 1ull << i;
        if ((i < HLSNAP__NUM_CPU_FEATURES && have >> i & 1) || n + size + 2 > sizeof(missing)) continue;
        n += (size_t)hlsnap__format(missing + n, sizeof(missing) - n, " %s", name);
    }
    if (!r && n) r = hlsnap__fail(err, HLSNAP_ERR_CPU, 0, "%s: features: this CPU lacks%s", d->file, missing);
    return r;
}

/* Four integers each. */
static hlsnap_result hlsnap__oci_extents_read(const hlsnap__json *d, hlsnap__oci_config *c, hlsnap_error *err) {
    const cJSON *row = NULL, *v;
    uint32_t i, k, four[4];
    hlsnap_result r =
        hlsnap__json_array(d, d->root, "", "extents", HLSNAP__OCI_MAX_EXTENTS, &row, &c->num_extents, err);
    if (r) return r;
    c->extents = (hlsnap__extent *)hlsnap__alloc(c->num_extents, sizeof(c->extents[0]), err);
    if (!c->extents) return HLSNAP_ERR_MEMORY;
    for (i = 0; row; row = row->next, i++) {
        v = cJSON_IsArray(row) ? row->child : NULL;
        for (k = 0; k < 4 && cJSON_IsNumber(v) && v->valuedouble >= 0 && v->valuedouble <= UINT32_MAX; k++, v = v->next)
            four[k] = (uint32_t)v->valuedouble;
        if (k < 4 || v) {
            char path[32];
            hlsnap__format(path, sizeof(path), "extents[%u]", i);
            return hlsnap__json_bad(d, path, "", "four integers from 0 to 2^32-1", v ? v : row, err);
        }
        c->extents[i].page = four[0];
        c->extents[i].pages = four[1];
        c->extents[i].layer = four[2];
        c->extents[i].layer_page = four[3];
    }
    return HLSNAP_OK;
}

/* Sizes of the layers, which must be the manifest's; every layer is there because an extent needs it. */
static hlsnap_result hlsnap__oci_layers_match(const hlsnap__json *d, hlsnap__oci_config *c,
                                              const hlsnap__oci_manifest *m, hlsnap_error *err) {
    const cJSON *o = NULL;
    bool used[HLSNAP__MAX_LAYERS] = {false};
    uint32_t i;
    hlsnap_result r = hlsnap__json_array(d, d->root, "", "layers", HLSNAP__MAX_LAYERS, &o, &c->num_layers, err);
    if (r) return r;
    if (c->num_layers != m->num_layers)
        return hlsnap__fail(err, d->code, 0, "%s: layers: %u, but the manifest has %u", d->file, c->num_layers,
                            m->num_layers);
    for (i = 0; i < c->num_layers; i++, o = o->next) {
        c->layer_pages[i] = m->memory[i].size / HLSNAP__PAGE;
        if (!cJSON_IsNumber(o) || o->valuedouble < (double)c->layer_pages[i] ||
            o->valuedouble > (double)c->layer_pages[i])
            return hlsnap__json_bad(d, "", "layers", "the size of the memory layers in pages", o, err);
    }
    if (hlsnap__extents_check(&c->guest->layout, c->layer_pages, c->num_layers, c->extents, c->num_extents, d->code,
                              err))
        return hlsnap__oci_refuse(d, "extents: ", err);
    for (i = 0; i < c->num_extents; i++) used[c->extents[i].layer] = true;
    for (i = 0; i < c->num_layers; i++)
        if (!used[i]) return hlsnap__fail(err, d->code, 0, "%s: extents: none uses layer %u", d->file, i);
    return HLSNAP_OK;
}

/* Fills c, of which the caller releases guest and extents, also after a failure. */
static hlsnap_result hlsnap__oci_config_read(const hlsnap__json *d, const hlsnap__oci_manifest *m,
                                             hlsnap__oci_config *c, hlsnap_error *err) {
    static const char *const fields[] = {"version", "abi",      "arch",       "page_size", "library", "guest",
                                         "entry",   "module",   "tls_size",   "window",    "regions", "exports",
                                         "imports", "features", "generation", "layers",    "extents", NULL};
    hlsnap__guest *g;
    hlsnap_result r = hlsnap__oci_config_gate(d, err);
    if (!r) r = hlsnap__json_exactly(d, d->root, "", fields, err);
    if (r) return r;
    g = c->guest = hlsnap__guest_alloc(err);
    if (!g) return HLSNAP_ERR_MEMORY;
    r = hlsnap__oci_guest_read(d, g, err);
    if (!r) r = hlsnap__oci_layout_read(d, &g->layout, err);
    if (!r) r = hlsnap__oci_decls_read(d, "exports", &g->contract.exports, &g->contract.num_exports, err);
    if (!r) r = hlsnap__oci_decls_read(d, "imports", &g->contract.imports, &g->contract.num_imports, err);
    if (!r) r = hlsnap__json_hex(d, d->root, "", "generation", &c->generation, err);
    if (!r && c->generation >> 63)
        r = hlsnap__json_bad(d, "", "generation", "a number below 2^63", hlsnap__json_get(d->root, "generation"), err);
    if (!r && hlsnap__guest_check(g, d->code, err)) r = hlsnap__oci_refuse(d, "", err);
    if (!r) r = hlsnap__oci_extents_read(d, c, err);
    if (!r) r = hlsnap__oci_layers_match(d, c, m, err);
    if (!r) r = hlsnap__oci_features_read(d, &g->features, err);
    if (r) return r;
    g->initialized = true;
    g->id = hlsnap__guest_id(g);
    return HLSNAP_OK;
}

/* ---- >>save ---- */

/* Stored pages in guest order, which is also their order in the one memory layer that a save writes. */
typedef struct hlsnap__oci_plan {
    hlsnap__extent *runs;
    uint32_t num, cap;
    uint64_t pages;            /* of the layer */
} hlsnap__oci_plan;

typedef enum hlsnap__oci_part {
    HLSNAP__OCI_MEMORY, HLSNAP__OCI_CHUNKS, HLSNAP__OCI_CONFIG, HLSNAP__OCI_MANIFEST, HLSNAP__OCI_NUM_PARTS
} hlsnap__oci_part;

typedef struct hlsnap__oci_save {
    const char *dir, *tag;
    const hlsnap_snapshot *s;
    hlsnap_oci_desc desc;
    hlsnap__sha256_lane lane;
    uint8_t *buffer;           /* HLSNAP__OCI_BATCH bytes: what is hashed and written leaves from here */
    uint8_t *sums;             /* the chunk list */
    hlsnap__text text;
    hlsnap__oci_plan plan;
    hlsnap__oci_store store;
    hlsnap__oci_blob blobs[HLSNAP__OCI_NUM_PARTS];
} hlsnap__oci_save;

static bool hlsnap__oci_zero(const uint8_t *p, size_t n) { return p[0] == 0 && memcmp(p, p + 1, n - 1) == 0; }

static bool hlsnap__oci_same_region(const hlsnap__layout *l, uint64_t a, uint64_t b) {
    return hlsnap__layout_at(l, l->base + a * HLSNAP__PAGE) == hlsnap__layout_at(l, l->base + b * HLSNAP__PAGE);
}

/* Appends a page. It joins the run before it where `join` allows and no page lies between. */
static hlsnap_result hlsnap__oci_plan_add(hlsnap__oci_plan *plan, uint32_t page, bool join, hlsnap_error *err) {
    hlsnap__extent *last = plan->num ? &plan->runs[plan->num - 1] : NULL;
    if (last && join && page == last->page + last->pages) {
        last->pages++;
        return HLSNAP_OK;
    }
    if (plan->num == plan->cap) {
        uint32_t cap = plan->cap ? 2 * plan->cap : 64;
        hlsnap__extent *runs = (hlsnap__extent *)hlsnap__alloc(cap, sizeof(runs[0]), err);
        if (!runs) return HLSNAP_ERR_MEMORY;
        if (plan->num) memcpy(runs, plan->runs, plan->num * sizeof(runs[0]));
        hlsnap__free(plan->runs);
        plan->runs = runs;
        plan->cap = cap;
    }
    plan->runs[plan->num].page = page;
    plan->runs[plan->num++].pages = 1;
    return HLSNAP_OK;
}

/* Adds the pages of an extent that are not zero. */
static hlsnap_result hlsnap__oci_plan_extent(hlsnap__oci_save *save, const hlsnap__extent *e, hlsnap_error *err) {
    const hlsnap__layer *layer = save->s->layers[e->layer];
    const hlsnap__layout *l = &save->s->guest->layout;
    bool join = e->page > 0 && hlsnap__oci_same_region(l, e->page, e->page - 1);
    uint32_t i, k, n;
    for (i = 0; i < e->pages; i += n) {
        const uint8_t *p = save->buffer;
        hlsnap_result r = HLSNAP_OK;
        n = e->pages - i < HLSNAP__OCI_BATCH / HLSNAP__PAGE ? e->pages - i : HLSNAP__OCI_BATCH / HLSNAP__PAGE;
        if (layer->map) p = layer->map + ((uint64_t)e->layer_page + i) * HLSNAP__PAGE;
        else r = hlsnap__layer_read(layer, (uint64_t)e->layer_page + i, n, save->buffer, err);
        for (k = 0; !r && k < n; k++)
            if (!hlsnap__oci_zero(p + (size_t)k * HLSNAP__PAGE, HLSNAP__PAGE))
                r = hlsnap__oci_plan_add(&save->plan, e->page + i + k, join || i + k > 0, err);
        if (r) return r;
    }
    return HLSNAP_OK;
}

/* Joins runs of one region over gaps of up to `gap` zero pages, which are then stored, and numbers the layer's pages. */
static void hlsnap__oci_plan_join(hlsnap__oci_plan *plan, const hlsnap__layout *l, uint32_t gap) {
    uint32_t i, num = 0;
    plan->pages = 0;
    for (i = 0; i < plan->num; i++) {
        hlsnap__extent run = plan->runs[i], *last = num ? &plan->runs[num - 1] : NULL;
        if (last && run.page - (last->page + last->pages) <= gap && hlsnap__oci_same_region(l, last->page, run.page))
            last->pages = run.page + run.pages - last->page;
        else plan->runs[num++] = run;
    }
    plan->num = num;
    for (i = 0; i < num; i++) {
        plan->runs[i].layer = 0;
        plan->runs[i].layer_page = (uint32_t)plan->pages;
        plan->pages += plan->runs[i].pages;
    }
}

/* Decides which pages are stored, and writes the config into save->text. */
static hlsnap_result hlsnap__oci_plan_make(hlsnap__oci_save *save, hlsnap_error *err) {
    const hlsnap__layout *l = &save->s->guest->layout;
    hlsnap__oci_plan *plan = &save->plan;
    uint32_t i, gap;
    hlsnap_result r = HLSNAP_OK;
    for (i = 0; !r && i < save->s->num_extents; i++) r = hlsnap__oci_plan_extent(save, &save->s->extents[i], err);
    if (r) return r;
    if (!plan->num) { /* a guest of zeros: the manifest needs a layer, so the first text page is stored */
        r = hlsnap__oci_plan_add(plan, (uint32_t)hlsnap__region_page(l, hlsnap__layout_find(l, HLSNAP__TEXT)), false,
                                 err);
        if (r) return r;
    }
    for (gap = 0;; gap = gap ? 2 * gap : 1) {
        hlsnap__oci_plan_join(plan, l, gap);
        if (plan->num > HLSNAP__OCI_MAX_EXTENTS) continue;
        r = hlsnap__text_start(&save->text, hlsnap__oci_config_bound(save->s->guest, plan->num), err);
        if (r) return r;
        hlsnap__oci_config_write(&save->text, save->s, plan->runs, plan->num, plan->pages);
        if (save->text.size <= HLSNAP__OCI_JSON_MAX) return HLSNAP_OK;
        if (gap > HLSNAP__MAX_PAGES) return hlsnap__fail(err, HLSNAP_ERR_LIMIT, 0, "the config takes more than 1 MiB");
    }
}

/* Copies n guest pages; what no extent covers is zero. */
static hlsnap_result hlsnap__oci_read_pages(const hlsnap_snapshot *s, uint64_t page, uint64_t n, uint8_t *to,
                                            hlsnap_error *err) {
    hlsnap_result r = HLSNAP_OK;
    uint64_t k;
    for (; !r && n; n -= k, page += k, to += k * HLSNAP__PAGE) {
        const hlsnap__extent *e = hlsnap__extent_at(s, page);
        k = e ? e->pages - (page - e->page) : 1;
        if (k > n) k = n;
        if (e) r = hlsnap__layer_read(s->layers[e->layer], e->layer_page + (page - e->page), k, to, err);
        else memset(to, 0, HLSNAP__PAGE);
    }
    return r;
}

/* Fills the buffer with n pages of the layer from layer page `at` on, which lies in run *run. */
static hlsnap_result hlsnap__oci_gather(hlsnap__oci_save *save, uint64_t at, uint64_t n, uint32_t *run,
                                        hlsnap_error *err) {
    uint8_t *to = save->buffer;
    hlsnap_result r = HLSNAP_OK;
    while (!r && n) {
        const hlsnap__extent *e = &save->plan.runs[*run];
        uint64_t skip = at - e->layer_page, k = e->pages - skip < n ? e->pages - skip : n;
        r = hlsnap__oci_read_pages(save->s, e->page + skip, k, to, err);
        at += k;
        n -= k;
        to += k * HLSNAP__PAGE;
        if (skip + k == e->pages) ++*run;
    }
    return r;
}

static hlsnap_result hlsnap__oci_report(const hlsnap_oci_desc *desc, uint64_t done, uint64_t total, hlsnap_error *err) {
    if (!desc->progress || desc->progress(done, total, desc->user)) return HLSNAP_OK;
    return hlsnap__fail(err, HLSNAP_ERR_CANCELLED, 0, "cancelled after %llu of %llu bytes", (unsigned long long)done,
                        (unsigned long long)total);
}

/* Digests of the chunks that n bytes at p make. */
static void hlsnap__oci_chunks_of(hlsnap__sha256_lane lane, const uint8_t *p, size_t n, uint8_t *sums) {
    size_t i, k;
    for (i = 0; i < n; i += k, sums += 32) {
        k = n - i < HLSNAP__OCI_CHUNK ? n - i : HLSNAP__OCI_CHUNK;
        hlsnap__sha256_of(lane, p + i, k, sums);
    }
}

/* Writes the memory layer and fills the chunk list: what is hashed is what is written, whatever its source does. */
static hlsnap_result hlsnap__oci_memory_write(hlsnap__oci_save *save, hlsnap__oci_blob *b, hlsnap_error *err) {
    const uint64_t total = save->plan.pages * HLSNAP__PAGE;
    hlsnap__sha256 whole;
    uint8_t sum[32];
    uint64_t at, n;
    uint32_t run = 0;
    hlsnap_result r = hlsnap__oci_blob_create(&save->store, save->store.sha256, b, err);
    if (r) return r;
    if (syscall(SYS_fallocate, b->fd, 0, (off_t)0, (off_t)total) != 0 && errno == ENOSPC) /* others write their way */
        return hlsnap__oci_os(err, errno, "allocate", "a memory layer");
    hlsnap__sha256_init(&whole, save->lane);
    for (at = 0; !r && at < total; at += n) {
        n = total - at < HLSNAP__OCI_BATCH ? total - at : HLSNAP__OCI_BATCH;
        r = hlsnap__oci_gather(save, at / HLSNAP__PAGE, n / HLSNAP__PAGE, &run, err);
        if (r) break;
        hlsnap__sha256_update(&whole, save->buffer, (size_t)n);
        hlsnap__oci_chunks_of(save->lane, save->buffer, (size_t)n, save->sums + at / HLSNAP__OCI_CHUNK * 32);
        r = hlsnap__pwrite(b->fd, save->buffer, (size_t)n, at, err);
        if (!r) r = hlsnap__oci_report(&save->desc, at + n, total, err);
    }
    if (!r) r = hlsnap__oci_fsync(b->fd, "a memory layer", err);
    hlsnap__sha256_final(&whole, sum);
    hlsnap__sha256_text(sum, b->digest);
    b->size = total;
    return r;
}

/* Writes a blob that is there in memory. */
static hlsnap_result hlsnap__oci_part_write(hlsnap__oci_save *save, hlsnap__oci_part part, const void *data, size_t n,
                                            hlsnap_error *err) {
    hlsnap__oci_blob *b = &save->blobs[part];
    uint8_t sum[32];
    hlsnap__sha256_of(save->lane, data, n, sum);
    hlsnap__sha256_text(sum, b->digest);
    return hlsnap__oci_file_write(&save->store, save->store.sha256, b, data, n, err);
}

/* Writes the four blobs, none of which has a name yet. */
static hlsnap_result hlsnap__oci_blobs_write(hlsnap__oci_save *save, hlsnap_error *err) {
    hlsnap__oci_blob *b = save->blobs;
    uint64_t size = hlsnap__oci_chunks_size(save->plan.pages * HLSNAP__PAGE);
    uint32_t i;
    hlsnap_result r;
    save->sums = (uint8_t *)hlsnap__alloc(1, (size_t)size, err);
    if (!save->sums) return HLSNAP_ERR_MEMORY;
    r = hlsnap__oci_part_write(save, HLSNAP__OCI_CONFIG, save->text.at, save->text.size, err);
    if (!r) r = hlsnap__oci_memory_write(save, &b[HLSNAP__OCI_MEMORY], err);
    if (!r) r = hlsnap__oci_part_write(save, HLSNAP__OCI_CHUNKS, save->sums, (size_t)size, err);
    if (!r) r = hlsnap__text_start(&save->text, 4096, err);
    if (r) return r;
    hlsnap__oci_manifest_write(&save->text, save->s->guest, &b[HLSNAP__OCI_MEMORY], &b[HLSNAP__OCI_CHUNKS],
                               &b[HLSNAP__OCI_CONFIG]);
    r = hlsnap__oci_part_write(save, HLSNAP__OCI_MANIFEST, save->text.at, save->text.size, err);
    for (i = 0; !r && i < HLSNAP__OCI_NUM_PARTS; i++)
        hlsnap__oci_blob_look(&save->store, &b[i], save->lane, save->buffer);
    return r;
}

/* Puts a small file under its name at the root, in one step. */
static hlsnap_result hlsnap__oci_root_file(hlsnap__oci_save *save, const char *name, const char *data, size_t n,
                                           hlsnap_error *err) {
    hlsnap__oci_blob b;
    struct stat st;
    hlsnap_result r;
    memset(&b, 0, sizeof(b));
    r = hlsnap__oci_file_write(&save->store, save->store.root, &b, data, n, err);
    if (!r && fstatat(save->store.root, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(st.st_mode) &&
        fchmod(b.fd, st.st_mode & 0666) != 0) /* who could read the old one can read the new one */
        r = hlsnap__oci_os(err, errno, "chmod", name);
    if (!r) r = hlsnap__oci_replace(&save->store, &b, save->store.root, name, err);
    hlsnap__oci_blob_close(&save->store, &b, false);
    return r;
}

/* Directories to the disk: what the index will name must be there before it, after a power loss too. */
static hlsnap_result hlsnap__oci_fsync_dirs(const hlsnap__oci_store *store, hlsnap_error *err) {
    hlsnap_result r = hlsnap__oci_fsync(store->sha256, "blobs/sha256", err);
    if (!r) r = hlsnap__oci_fsync(store->blobs, "blobs", err);
    return r ? r : hlsnap__oci_fsync(store->root, "the layout", err);
}

/* The parent of a layout that may be new. */
static hlsnap_result hlsnap__oci_fsync_parent(const hlsnap__oci_store *store, hlsnap_error *err) {
    int parent = openat(store->root, "..", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    hlsnap_result r;
    if (parent < 0) return store->made_root ? hlsnap__oci_os(err, errno, "open", "the layout's parent") : HLSNAP_OK;
    r = hlsnap__oci_fsync(parent, "the layout's parent", err);
    close(parent);
    return r;
}

/* Names the blobs and lists the manifest, under the index lock. *listed: the index names them, so they must stay. */
static hlsnap_result hlsnap__oci_list(hlsnap__oci_save *save, hlsnap__json *index, bool *marking, bool *listed,
                                      hlsnap_error *err) {
    static const char marker[] = "{\"imageLayoutVersion\":\"1.0.0\"}";
    bool marked = false;
    uint32_t i;
    hlsnap_result r = hlsnap__oci_index_read(save->store.root, index, &marked, err);
    if (r) return r;
    r = hlsnap__text_start(&save->text, index->size + 1024, err);
    if (r) return r;
    hlsnap__oci_index_write(&save->text, index, save->tag, &save->blobs[HLSNAP__OCI_MANIFEST]);
    if (save->text.size > HLSNAP__OCI_JSON_MAX)
        return hlsnap__fail(err, HLSNAP_ERR_LIMIT, 0, "index.json would pass 1 MiB");
    for (i = 0; !r && i < HLSNAP__OCI_NUM_PARTS; i++)
        r = hlsnap__oci_blob_commit(&save->store, &save->blobs[i], save->lane, save->buffer, err);
    if (!r && !marked) {
        r = hlsnap__oci_root_file(save, "oci-layout", marker, sizeof(marker) - 1, err);
        *marking = !r;
    }
    if (!r) r = hlsnap__oci_fsync_dirs(&save->store, err);
    if (!r) r = hlsnap__oci_root_file(save, "index.json", save->text.at, save->text.size, err);
    if (r) return r;
    *listed = true;
    r = hlsnap__oci_fsync(save->store.root, "the layout", err);
    return r || index->root ? r : hlsnap__oci_fsync_parent(&save->store, err);
}

/* The last phase; a failure takes back what it did before anybody else gets the lock. */
static hlsnap_result hlsnap__oci_commit(hlsnap__oci_save *save, bool *listed, hlsnap_error *err) {
    hlsnap__json index;
    bool marking = false;
    uint32_t i;
    hlsnap_result r = hlsnap__oci_lock(&save->store, HLSNAP__OCI_LOCK_INDEX, F_WRLCK, err);
    if (r) return r;
    memset(&index, 0, sizeof(index));
    r = hlsnap__oci_list(save, &index, &marking, listed, err);
    if (marking && !*listed) unlinkat(save->store.root, "oci-layout", 0);
    for (i = 0; i < HLSNAP__OCI_NUM_PARTS; i++) hlsnap__oci_blob_close(&save->store, &save->blobs[i], !*listed);
    hlsnap__json_close(&index);
    hlsnap__oci_unlock(&save->store, HLSNAP__OCI_LOCK_INDEX);
    return r;
}

static hlsnap_result hlsnap__oci_save_run(hlsnap__oci_save *save, hlsnap_oci_digest *out, hlsnap_error *err) {
    bool listed = false;
    uint32_t i;
    hlsnap_result r;
    save->buffer = (uint8_t *)hlsnap__alloc(1, HLSNAP__OCI_BATCH, err);
    if (!save->buffer) return HLSNAP_ERR_MEMORY;
    save->store.root = save->store.blobs = save->store.sha256 = save->store.lock = -1;
    for (i = 0; i < HLSNAP__OCI_NUM_PARTS; i++) save->blobs[i].fd = -1;
    r = hlsnap__oci_plan_make(save, err);
    if (r) return r;
    r = hlsnap__oci_store_open(save->dir, &save->store, err);
    if (!r) r = hlsnap__oci_blobs_write(save, err);
    if (!r) r = hlsnap__oci_commit(save, &listed, err);
    for (i = 0; i < HLSNAP__OCI_NUM_PARTS; i++) hlsnap__oci_blob_close(&save->store, &save->blobs[i], false);
    hlsnap__oci_store_close(save->dir, &save->store, r && !listed);
    if (!r && out) memcpy(out->text, save->blobs[HLSNAP__OCI_MANIFEST].digest, sizeof(out->text));
    return r;
}

/* ---- >>load ---- */

typedef struct hlsnap__oci_load {
    const char *ref;
    hlsnap_oci_desc desc;
    hlsnap__sha256_lane lane;
    int root;
    hlsnap__json index, manifest_json, config_json;
    const char *digest;        /* the manifest's; points into index */
    hlsnap__oci_manifest manifest;
    hlsnap__oci_config config;
    hlsnap__layer *layers[HLSNAP__MAX_LAYERS];
    uint8_t *buffer;           /* HLSNAP__OCI_BATCH bytes */
    uint8_t *sums;             /* chunk list of the layer at hand */
    uint8_t *used;             /* one byte per chunk of it: an extent needs the chunk */
    uint64_t done, total;      /* bytes, for progress */
} hlsnap__oci_load;

/* Reads a small blob, whole, and verifies it. The caller frees *out. */
static hlsnap_result hlsnap__oci_small_blob(hlsnap__oci_load *load, const hlsnap__oci_ref *ref, char **out,
                                            hlsnap_error *err) {
    uint8_t sum[32];
    char text[72];
    int fd;
    hlsnap_result r = hlsnap__oci_open_blob(load->root, ref->digest, ref->size, &fd, err);
    if (r) return r;
    r = hlsnap__oci_slurp(fd, ref->digest, (size_t)ref->size, out, err);
    close(fd);
    if (r || load->desc.disable_verify) return r;
    hlsnap__sha256_of(load->lane, *out, (size_t)ref->size, sum);
    hlsnap__sha256_text(sum, text);
    if (strcmp(text, ref->digest) == 0) return HLSNAP_OK;
    return hlsnap__fail(err, HLSNAP_ERR_DIGEST, 0, "blobs/sha256/%s: its content is %s", ref->digest + 7, text);
}

static hlsnap_result hlsnap__oci_json_blob(hlsnap__oci_load *load, const hlsnap__oci_ref *ref, const char *what,
                                           hlsnap_result code, hlsnap__json *d, hlsnap_error *err) {
    hlsnap_result r = hlsnap__oci_small_blob(load, ref, &d->text, err);
    hlsnap__format(d->file, sizeof(d->file), "%s %.20s..", what, ref->digest);
    d->size = (size_t)ref->size;
    d->code = code;
    return r ? r : hlsnap__json_parse(d, err);
}

/* From a tag or digest to the config; everything but the bytes of guest memory is checked when this returns. */
static hlsnap_result hlsnap__oci_resolve(hlsnap__oci_load *load, hlsnap_error *err) {
    hlsnap__oci_ref ref;
    const cJSON *entry = NULL;
    char path[32];
    uint32_t number = 0;
    hlsnap_result r = hlsnap__oci_marker_read(load->root, err);
    if (!r) r = hlsnap__oci_entries_read(load->root, &load->index, err);
    if (!r) r = hlsnap__oci_index_find(&load->index, load->ref, &entry, &number, err);
    hlsnap__format(path, sizeof(path), "manifests[%u].", number);
    if (!r) r = hlsnap__oci_ref_read(&load->index, entry, path, &ref, err);
    if (r) return r;
    if (strcmp(ref.type, HLSNAP__OCI_MANIFEST_TYPE) != 0) {
        load->index.code = HLSNAP_ERR_MEDIA_TYPE;
        return hlsnap__json_bad(&load->index, path, "mediaType", HLSNAP__OCI_MANIFEST_TYPE,
                                hlsnap__json_get(entry, "mediaType"), err);
    }
    load->digest = ref.digest;
    r = hlsnap__oci_ref_usable(&load->index, path, &ref, 1, HLSNAP__OCI_JSON_MAX, err);
    if (!r) r = hlsnap__oci_json_blob(load, &ref, "manifest", HLSNAP_ERR_MANIFEST, &load->manifest_json, err);
    if (!r) r = hlsnap__oci_manifest_read(&load->manifest_json, &load->manifest, err);
    if (!r)
        r = hlsnap__oci_json_blob(load, &load->manifest.config, "config", HLSNAP_ERR_CONFIG, &load->config_json, err);
    return r ? r : hlsnap__oci_config_read(&load->config_json, &load->manifest, &load->config, err);
}

/* Verifies n bytes in the buffer, whole chunks from chunk number `chunk` on. */
static hlsnap_result hlsnap__oci_verify(hlsnap__oci_load *load, uint32_t layer, uint64_t chunk, uint64_t n,
                                        hlsnap_error *err) {
    uint8_t sums[HLSNAP__OCI_BATCH / HLSNAP__OCI_CHUNK * 32];
    uint64_t i;
    if (load->desc.disable_verify) return HLSNAP_OK;
    hlsnap__oci_chunks_of(load->lane, load->buffer, (size_t)n, sums);
    for (i = 0; i * HLSNAP__OCI_CHUNK < n; i++)
        if (memcmp(sums + 32 * i, load->sums + 32 * (chunk + i), 32) != 0)
            return hlsnap__fail(err, HLSNAP_ERR_DIGEST, 0,
                                "blobs/sha256/%s: content of layer %u at byte %llu differs from its chunk list",
                                load->manifest.memory[layer].digest + 7, layer,
                                (unsigned long long)((chunk + i) * HLSNAP__OCI_CHUNK));
    return HLSNAP_OK;
}

/* Marks the chunks that extents need; the others may be left alone, so that what is read is bounded by the guest's size. */
static void hlsnap__oci_mark_used(hlsnap__oci_load *load, uint32_t layer) {
    const uint32_t pages = HLSNAP__OCI_CHUNK / HLSNAP__PAGE;
    uint32_t i;
    for (i = 0; i < load->config.num_extents; i++) {
        const hlsnap__extent *e = &load->config.extents[i];
        uint64_t chunk = e->layer_page / pages, last = ((uint64_t)e->layer_page + e->pages - 1) / pages;
        for (; e->layer == layer && chunk <= last; chunk++) load->used[chunk] = 1;
    }
}

/* Writes chunks but those of zeros, which a new memfd holds already: a sparse file must not become real memory. */
static hlsnap_result hlsnap__oci_write_chunks(int fd, const uint8_t *p, uint64_t n, uint64_t at, hlsnap_error *err) {
    hlsnap_result r = HLSNAP_OK;
    uint64_t k;
    for (; !r && n; n -= k, p += k, at += k) {
        k = n < HLSNAP__OCI_CHUNK ? n : HLSNAP__OCI_CHUNK;
        if (!hlsnap__oci_zero(p, (size_t)k)) r = hlsnap__pwrite(fd, p, (size_t)k, at, err);
    }
    return r;
}

/* Copies what is needed of the layer's file to `to` (-1: nowhere), and verifies the bytes that it copies. */
static hlsnap_result hlsnap__oci_layer_copy(hlsnap__oci_load *load, uint32_t layer, int fd, int to, hlsnap_error *err) {
    const uint64_t size = load->manifest.memory[layer].size, chunks = hlsnap__oci_chunks_size(size) / 32;
    uint64_t chunk, n, k;
    hlsnap_result r = HLSNAP_OK;
    for (chunk = 0; !r && chunk < chunks; chunk += k) {
        const uint64_t at = chunk * HLSNAP__OCI_CHUNK;
        bool used = load->used[chunk] != 0;
        for (k = 1;
             k < HLSNAP__OCI_BATCH / HLSNAP__OCI_CHUNK && chunk + k < chunks && (load->used[chunk + k] != 0) == used;)
            k++;
        n = size - at < k * HLSNAP__OCI_CHUNK ? size - at : k * HLSNAP__OCI_CHUNK;
        if (used) r = hlsnap__pread(fd, load->buffer, (size_t)n, at, err);
        if (used && !r) r = hlsnap__oci_verify(load, layer, chunk, n, err);
        if (used && !r && to >= 0) r = hlsnap__oci_write_chunks(to, load->buffer, n, at, err);
        load->done += n;
        if (!r) r = hlsnap__oci_report(&load->desc, load->done, load->total, err);
    }
    return r;
}

/* A private, sealed copy of an open blob; *to is the caller's, also after a failure. */
static hlsnap_result hlsnap__oci_layer_private(hlsnap__oci_load *load, uint32_t layer, int fd, int *to,
                                               hlsnap_error *err) {
    hlsnap_result r;
    *to = hlsnap__memfd(err);
    if (*to < 0) return HLSNAP_ERR_OS;
    if (ftruncate(*to, (off_t)load->manifest.memory[layer].size) != 0)
        return hlsnap__oci_os(err, errno, "resize", "a memfd");
    r = hlsnap__oci_layer_copy(load, layer, fd, *to, err);
    return r ? r : hlsnap__memfd_seal(*to, err);
}

/* Opens layer i, with the guard that was asked for. */
static hlsnap_result hlsnap__oci_layer_load(hlsnap__oci_load *load, uint32_t i, hlsnap_error *err) {
    const hlsnap__oci_ref *memory = &load->manifest.memory[i];
    bool copy = load->desc.guard == HLSNAP_OCI_GUARD_PRIVATE;
    char *sums = NULL;
    int fd, to = -1;
    hlsnap_result r = hlsnap__oci_small_blob(load, &load->manifest.chunks[i], &sums, err);
    load->sums = (uint8_t *)sums;
    if (r) return r;
    load->used = (uint8_t *)hlsnap__alloc(1, (size_t)(load->manifest.chunks[i].size / 32), err);
    if (!load->used) return HLSNAP_ERR_MEMORY;
    hlsnap__oci_mark_used(load, i);
    r = hlsnap__oci_open_blob(load->root, memory->digest, memory->size, &fd, err);
    if (r) return r;
    if (copy) r = hlsnap__oci_layer_private(load, i, fd, &to, err);
    else if (!load->desc.disable_verify) r = hlsnap__oci_layer_copy(load, i, fd, -1, err);
    if (copy || r) close(fd);
    if (r && to >= 0) close(to);
    if (r) return r;
    load->layers[i] = hlsnap__layer_create(copy ? to : fd, copy, memory->size / HLSNAP__PAGE, err);
    return load->layers[i] ? HLSNAP_OK : err->code;
}

/* Everything of one attempt that the next one or the end must not find. */
static void hlsnap__oci_load_clear(hlsnap__oci_load *load) {
    uint32_t i;
    for (i = 0; i < HLSNAP__MAX_LAYERS; i++) hlsnap__layer_release(load->layers[i]);
    hlsnap__guest_release(load->config.guest);
    hlsnap__free(load->config.extents);
    hlsnap__free(load->sums);
    hlsnap__free(load->used);
    hlsnap__json_close(&load->index);
    hlsnap__json_close(&load->manifest_json);
    hlsnap__json_close(&load->config_json);
    memset(&load->manifest, 0, sizeof(load->manifest));
    memset(&load->config, 0, sizeof(load->config));
    memset(load->layers, 0, sizeof(load->layers));
    load->sums = load->used = NULL;
    load->done = load->total = 0;
}

static hlsnap_result hlsnap__oci_load_once(hlsnap__oci_load *load, hlsnap_snapshot **out, hlsnap_error *err) {
    const hlsnap__oci_config *c = &load->config;
    uint32_t i;
    hlsnap_result r = hlsnap__oci_resolve(load, err);
    for (i = 0; !r && i < c->num_layers; i++) load->total += load->manifest.memory[i].size;
    for (i = 0; !r && i < c->num_layers; i++) {
        r = hlsnap__oci_layer_load(load, i, err);
        hlsnap__free(load->sums);
        hlsnap__free(load->used);
        load->sums = load->used = NULL;
    }
    if (!r)
        r = hlsnap__snapshot_create(c->guest, c->generation, load->layers, c->num_layers, c->extents, c->num_extents,
                                    out, err);
    if (!r) (*out)->guard = (uint32_t)load->desc.guard;
    return r;
}

static hlsnap_result hlsnap__oci_load_run(hlsnap__oci_load *load, const char *dir, hlsnap_snapshot **out,
                                          hlsnap_oci_digest *digest, hlsnap_error *err) {
    hlsnap_result r;
    load->buffer = (uint8_t *)hlsnap__alloc(1, HLSNAP__OCI_BATCH, err);
    if (!load->buffer) return HLSNAP_ERR_MEMORY;
    r = hlsnap__oci_open_root(dir, &load->root, err);
    if (!r && load->root < 0) r = hlsnap__oci_os(err, ENOENT, "open", dir);
    if (r) return r;
    r = hlsnap__oci_load_once(load, out, err);
    if (r == HLSNAP_ERR_FILE && err->os_errno == ENOENT) { /* a blob was collected after its tag had moved: once more */
        hlsnap__oci_load_clear(load);
        r = hlsnap__oci_load_once(load, out, err);
    }
    if (!r && digest) memcpy(digest->text, load->digest, sizeof(digest->text));
    hlsnap__oci_load_clear(load);
    close(load->root);
    return r;
}

/* ---- >>public ---- */

/* Ends a public function: a failure's text starts with its name. */
static hlsnap_result hlsnap__oci_end(hlsnap_result r, const char *function, const hlsnap_error *from,
                                     hlsnap_error *err) {
    if (!r || !err) return r;
    *err = *from;
    hlsnap__format(err->msg, sizeof(err->msg), "%s: %.480s", function, from->msg);
    return r;
}

static hlsnap_result hlsnap__oci_desc_read(const hlsnap_oci_desc *desc, hlsnap_oci_desc *out, hlsnap_error *err) {
    static const hlsnap_oci_desc none = HLSNAP_ZERO;
    *out = desc ? *desc : none;
    if (out->_start_canary || out->_end_canary)
        return hlsnap__fail(err, HLSNAP_ERR_ARG, 0, "desc: a canary is not 0: was it initialized with HLSNAP_ZERO?");
    if ((uint32_t)out->guard > HLSNAP_OCI_GUARD_PRIVATE)
        return hlsnap__fail(err, HLSNAP_ERR_ARG, 0, "desc: guard=%u is none", (uint32_t)out->guard);
    if (out->guard == HLSNAP_OCI_GUARD_DEFAULT) out->guard = HLSNAP_OCI_GUARD_PRIVATE;
    return HLSNAP_OK;
}

static hlsnap_result hlsnap__oci_tag_check(const char *tag, hlsnap_error *err) {
    char shown[200];
    if (tag && hlsnap__oci_tag_ok(tag)) return HLSNAP_OK;
    hlsnap__printable(shown, sizeof(shown), tag ? tag : "NULL", tag ? strlen(tag) : 4, false);
    return hlsnap__fail(err, HLSNAP_ERR_ARG, 0, "'%s' is no tag: [A-Za-z0-9_][A-Za-z0-9._-]{0,127}", shown);
}

HLSNAP_API hlsnap_result hlsnap_oci_save(const char *dir, const char *tag, hlsnap_snapshot *s,
                                         const hlsnap_oci_desc *desc, hlsnap_oci_digest *out, hlsnap_error *err) {
    hlsnap_error e;
    hlsnap_oci_desc d;
    hlsnap__oci_save *save;
    hlsnap_result r = hlsnap__oci_desc_read(desc, &d, &e);
    if (!r) r = hlsnap__oci_tag_check(tag, &e);
    if (!r && (!dir || !s)) r = hlsnap__fail(&e, HLSNAP_ERR_ARG, 0, "%s is NULL", dir ? "the snapshot" : "dir");
    if (!r && !s->guest->initialized)
        r = hlsnap__fail(&e, HLSNAP_ERR_STATE, 0, "a snapshot from before the guest's init");
    if (!r && s->generation >> 63)
        r = hlsnap__fail(&e, HLSNAP_ERR_LIMIT, 0, "generation 0x%llx is beyond 2^63",
                         (unsigned long long)s->generation);
    save = r ? NULL : (hlsnap__oci_save *)hlsnap__alloc(1, sizeof(*save), &e);
    if (!r && !save) r = HLSNAP_ERR_MEMORY;
    if (save) {
        save->dir = dir;
        save->tag = tag;
        save->s = s;
        save->desc = d;
        save->lane = hlsnap__sha256_pick();
        r = hlsnap__oci_save_run(save, out, &e);
        hlsnap__free(save->text.at);
        hlsnap__free(save->buffer);
        hlsnap__free(save->sums);
        hlsnap__free(save->plan.runs);
        hlsnap__free(save);
    }
    return hlsnap__oci_end(r, "hlsnap_oci_save", &e, err);
}

HLSNAP_API hlsnap_result hlsnap_oci_load(const char *dir, const char *ref, const hlsnap_oci_desc *desc,
                                         hlsnap_snapshot **out, hlsnap_oci_digest *digest, hlsnap_error *err) {
    hlsnap_error e;
    hlsnap_oci_desc d;
    hlsnap__oci_load *load;
    hlsnap_result r = hlsnap__oci_desc_read(desc, &d, &e);
    if (out) *out = NULL;
    if (!r && (!dir || !out)) r = hlsnap__fail(&e, HLSNAP_ERR_ARG, 0, "%s is NULL", dir ? "out" : "dir");
    if (!r && !(ref && hlsnap__sha256_text_ok(ref))) r = hlsnap__oci_tag_check(ref, &e);
    if (!r && (d.guard == HLSNAP_OCI_GUARD_DETECT || d.guard == HLSNAP_OCI_GUARD_LEASE))
        r = hlsnap__fail(&e, HLSNAP_ERR_UNSUPPORTED, 0, "desc: guard=%u is not there yet", (uint32_t)d.guard);
    load = r ? NULL : (hlsnap__oci_load *)hlsnap__alloc(1, sizeof(*load), &e);
    if (!r && !load) r = HLSNAP_ERR_MEMORY;
    if (load) {
        load->ref = ref;
        load->desc = d;
        load->lane = hlsnap__sha256_pick();
        load->root = -1;
        r = hlsnap__oci_load_run(load, dir, out, digest, &e);
        hlsnap__free(load->buffer);
        hlsnap__free(load);
    }
    return hlsnap__oci_end(r, "hlsnap_oci_load", &e, err);
}

#ifdef __cplusplus
}
#endif
#endif /* HLSNAP_OCI_IMPLEMENTATION_ONCE */
#endif /* HLSNAP_IMPLEMENTATION */

/* License: MIT

Copyright (c) 2026 the hlsnap authors

Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated documentation
files (the "Software"), to deal in the Software without restriction, including without limitation the rights to use, copy,
modify, merge, publish, distribute, sublicense, and/or sell copies of the Software, and to permit persons to whom the
Software is furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all copies or substantial portions of the
Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE
WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR
COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE,
ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE. */

/* test_sha.c - every way to hash chunks, forced one by one, against libcrypto: all lengths, chunk counts, starts, and no byte
   read or written outside of what was given.
   cc:  cc -std=gnu11 -I.. test_sha.c -lcjson -lcrypto -o test_sha
   run: ./test_sha [name]      ways that this CPU has not are skipped; QUICK=1: a tenth of the lengths */
#define HLSNAP_IMPLEMENTATION
#include "hlsnap.h"
#include "hlsnap_kvm.h"
#include "hlsnap_oci.h"
#include "test.h"
#include <openssl/sha.h>
#include <stdlib.h>
#include <sys/mman.h>

#define CHUNK 65536u
#define MOST (41u * CHUNK)    /* bytes of data */
#define GUARD 4096u

static const uint8_t *data;   /* MOST random bytes; the page before and the page behind cannot be read */
static size_t step = 1;       /* QUICK: 10 */

static void data_make(void) {
    uint8_t *p = (uint8_t *)mmap(NULL, GUARD + MOST + GUARD, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    uint64_t x = 88172645463325252ull;
    size_t i;
    if (p == MAP_FAILED || mprotect(p + GUARD, MOST, PROT_READ | PROT_WRITE) != 0) abort();
    for (i = 0; i < MOST; i += 8) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        memcpy(p + GUARD + i, &x, 8);
    }
    mprotect(p + GUARD, MOST, PROT_READ);
    data = p + GUARD;
}

/* ---- the ways, forced ---- */

typedef enum way { PORTABLE, NI, NI_X2, AVX512, NUM_WAYS } way;

/* Fills `to` with nothing but this way for whole chunks, from the first one on. False: not on this CPU. */
static bool force(way w, hlsnap__sha256_ways *to) {
    memset(to, 0, sizeof(*to));
    to->one = hlsnap__sha256_portable;
#if defined(__x86_64__)
    {
        const uint64_t need[NUM_WAYS] = {0, HLSNAP__SHA256_NI, HLSNAP__SHA256_NI, HLSNAP__SHA256_AVX512};
        const hlsnap__sha256_wide wide[NUM_WAYS] = {
            {NULL, 0, 0}, {NULL, 0, 0}, {hlsnap__sha256_ni_x2, 2, 1}, {hlsnap__sha256_avx512, 16, 1}};
        if (w == NI) to->one = hlsnap__sha256_ni; /* else portable, so that a broken way cannot hide behind this one */
        to->wide[0] = wide[w];
        return (hlsnap__cpu_features() & need[w]) == need[w];
    }
#else
    return w == PORTABLE;
#endif
}

/* How many of the chunks of n bytes at p get a wrong sum; what is behind the last sum must stay as it is. */
static size_t wrong(const hlsnap__sha256_ways *ways, const uint8_t *p, size_t n, size_t chunk) {
    static uint8_t sums[(MOST / 64 + 1) * 32];
    const size_t num = (n + chunk - 1) / chunk;
    uint8_t right[32];
    size_t i, bad = 0;
    memset(sums, 0xee, (num + 1) * 32);
    hlsnap__sha256_chunks(ways, p, n, chunk, sums);
    for (i = 0; i < num; i++) {
        SHA256(p + i * chunk, n - i * chunk < chunk ? n - i * chunk : chunk, right);
        bad += memcmp(right, sums + 32 * i, 32) != 0;
    }
    for (i = 0; i < 32; i++) bad += sums[32 * num + i] != 0xee;
    return bad;
}

/* One message of each length, its last byte before the guard page; then its first byte behind the other one. */
static size_t wrong_lengths(const hlsnap__sha256_ways *ways) {
    uint8_t a[32], b[32];
    size_t n, k, bad = 0;
    for (n = 0; n <= 4096; n += step)
        for (k = 0; k < 2; k++) {
            const uint8_t *p = k ? data : data + MOST - n;
            hlsnap__sha256_of(ways->one, p, n, a);
            SHA256(p, n, b);
            bad += memcmp(a, b, 32) != 0;
        }
    return bad;
}

/* The same as chunks: every length in chunks of each size, at every alignment. */
static size_t wrong_chunks(const hlsnap__sha256_ways *ways) {
    static const size_t chunks[] = {64, 192, 1024, 4096};
    size_t n, i, bad = 0;
    for (i = 0; i < sizeof(chunks) / sizeof(chunks[0]); i++)
        for (n = 0; n <= 4096; n += step) {
            bad += wrong(ways, data + MOST - n, n, chunks[i]);
            bad += wrong(ways, data + n % 64, n, chunks[i]);
        }
    return bad;
}

/* 1 to 40 whole chunks and a short last one, ends at the guard page. */
static size_t wrong_counts(const hlsnap__sha256_ways *ways) {
    static const size_t chunks[] = {64, 832, 4096}, tails[] = {0, 1, 55, 56, 63};
    static const size_t counts[] = {1, 2, 3, 9, 10, 15, 16, 17, 33, 40};
    size_t i, k, t, bad = 0;
    for (i = 0; i < sizeof(chunks) / sizeof(chunks[0]); i++)
        for (k = 1; k <= 40; k++)
            for (t = 0; t < 6; t++) {
                size_t n = k * chunks[i] + (t < 5 ? tails[t] : chunks[i] - 1);
                bad += wrong(ways, data + MOST - n, n, chunks[i]);
            }
    for (k = 0; k < sizeof(counts) / sizeof(counts[0]); k += step == 1 ? 1 : 5) { /* as in a layout */
        size_t n = counts[k] * CHUNK + k * 4096;
        bad += wrong(ways, data + MOST - n, n, CHUNK);
    }
    return bad;
}

static void check(way w) {
    hlsnap__sha256_ways ways;
    if (!force(w, &ways)) SKIP("not on this CPU");
    CHECK_EQ(wrong_lengths(&ways), 0);
    CHECK_EQ(wrong_chunks(&ways), 0);
    CHECK_EQ(wrong_counts(&ways), 0);
}

static void portable(void) { check(PORTABLE); }
static void ni(void) { check(NI); }
static void ni_x2(void) { check(NI_X2); }
static void avx512(void) { check(AVX512); }

/* Each lane sees its own message only: all equal but one byte of one of them. */
static void lanes_apart(void) {
    static uint8_t same[16 * 192];
    hlsnap__sha256_ways ways;
    size_t w, i, bad = 0;
    for (w = NI_X2; w < NUM_WAYS; w++) {
        if (!force((way)w, &ways)) continue;
        for (i = 0; i < sizeof(same); i++) {
            same[i] ^= 1;
            bad += wrong(&ways, same, sizeof(same), 192);
            same[i] ^= 1;
        }
    }
    CHECK_EQ(bad, 0);
}

/* Any state goes in and comes out, not only the initial one, and nothing happens without blocks. */
static void states(void) {
#if defined(__x86_64__)
    uint32_t h[16][8], right[16][8];
    const uint8_t *p[16];
    hlsnap__sha256_ways ways;
    size_t w, i, blocks, lanes;
    for (w = NI; w < NUM_WAYS; w++)
        for (blocks = 0; blocks < 4; blocks++) {
            if (!force((way)w, &ways)) continue;
            lanes = w == NI ? 1 : ways.wide[0].lanes;
            memcpy(h, data + blocks, sizeof(h));
            memcpy(right, h, sizeof(h));
            for (i = 0; i < lanes; i++) {
                p[i] = data + MOST - (i * 7 % 16 + blocks) * 64; /* in no order */
                hlsnap__sha256_portable(right[i], p[i], blocks);
            }
            if (w == NI) hlsnap__sha256_ni(h[0], p[0], blocks);
            else ways.wide[0].run(h, p, blocks);
            CHECK(memcmp(h, right, sizeof(h)) == 0); /* rows behind the last lane too: they did not change */
        }
#else
    SKIP("portable only");
#endif
}

/* What a CPU gets, and that it is right for as much of it as this one has. */
static void picked(void) {
#if defined(__x86_64__)
    const uint64_t ni_bits = HLSNAP__SHA256_NI, wide_bits = HLSNAP__SHA256_AVX512, all = UINT64_MAX >> 1;
    const hlsnap__sha256_ways *ways = hlsnap__sha256_pick(all);
    uint64_t i, features;
    CHECK(ways->one == hlsnap__sha256_ni && ways->wide[0].run == hlsnap__sha256_avx512);
    CHECK(ways->wide[1].run == hlsnap__sha256_ni_x2);
    for (i = 0; i < 64; i++) { /* no way without each bit that it needs */
        ways = hlsnap__sha256_pick(all & ~(1ull << i));
        CHECK((ways->one == hlsnap__sha256_ni) == !(ni_bits >> i & 1));
        CHECK((ways->wide[0].run == hlsnap__sha256_avx512) == !(wide_bits >> i & 1));
        CHECK((ways->wide[!(wide_bits >> i & 1)].run == hlsnap__sha256_ni_x2) == !(ni_bits >> i & 1));
    }
    for (i = 0; i < 4; i++) {
        features = hlsnap__cpu_features() & ~((i & 1 ? ni_bits : 0) | (i & 2 ? wide_bits : 0));
        ways = hlsnap__sha256_pick(features);
        CHECK((ways->need & ~features) == 0);
        CHECK_EQ(wrong_counts(ways), 0);
    }
#endif
    CHECK(hlsnap__sha256_pick(0)->one == hlsnap__sha256_portable && !hlsnap__sha256_pick(0)->wide[0].run);
}

/* The size of a message in bits does not fit 32 bits: 512 MiB of zeros, twice. */
static void huge_chunks(void) {
    const size_t n = 512u << 20;
    hlsnap__sha256_ways ways;
    size_t w, i;
    uint8_t sums[64], right[32];
    uint8_t *p;
    p = (uint8_t *)mmap(NULL, 2 * n, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (!CHECK(p != MAP_FAILED)) return;
    SHA256(p, n, right);
    for (w = NI_X2; w < NUM_WAYS; w++) {
        if (!force((way)w, &ways)) continue;
        hlsnap__sha256_chunks(&ways, p, 2 * n, n, sums);
        for (i = 0; i < 2; i++) CHECK(memcmp(right, sums + 32 * i, 32) == 0);
    }
    munmap(p, 2 * n);
}

int main(int argc, char **argv) {
    static const test_row tests[] = {TEST(portable), TEST(ni), TEST(ni_x2), TEST(avx512), TEST(lanes_apart), TEST(states),
        TEST(picked), TEST(huge_chunks)};
    const char *quick = getenv("QUICK");
    step = quick && *quick == '1' ? 10 : 1;
    data_make();
    return TEST_MAIN(tests, argc, argv);
}

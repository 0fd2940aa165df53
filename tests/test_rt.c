/* test_rt.c - the guest runtime's leaf code, run natively against the C library of this machine: memory and strings,
   formatting, heap, random source. RT_CASES is the number of random formats; QUICK=1: a tenth of what is random or exhaustive. */
#define _GNU_SOURCE
#define HLSNAP_IMPLEMENTATION
#include "hlsnap.h"
#include "test.h"
#include <float.h>
#include <limits.h>
#include <math.h>

static unsigned long t_known;
static uint64_t t_state = 0x243f6a8885a308d3u;

static uint64_t rnd(void)
{
    t_state ^= t_state << 13;
    t_state ^= t_state >> 7;
    t_state ^= t_state << 17;
    return t_state * 0x2545f4914f6cdd1du;
}

static size_t below(size_t n)
{
    return (size_t)((rnd() >> 20) % n);
}

static unsigned rounds(unsigned n)
{
    return getenv("QUICK") ? n / 10 : n;
}

/* n usable bytes with a guard page before and behind */
static unsigned char *t_pages(size_t n)
{
    unsigned char *p = (unsigned char *)mmap(NULL, n + 8192, PROT_READ | PROT_WRITE,
                                             MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED || mprotect(p, 4096, PROT_NONE) != 0 ||
        mprotect(p + 4096 + n, 4096, PROT_NONE) != 0)
        exit(2);
    madvise(p, n + 8192, MADV_NOHUGEPAGE);
    return p + 4096;
}

static void t_pages_free(unsigned char *p, size_t n)
{
    munmap(p - 4096, n + 8192);
}

/* ---- memory ---- */

enum { AREA = 8192 };

static void copy(void)
{
    unsigned char *a = t_pages(AREA), *b = t_pages(AREA), *src = t_pages(AREA);
    unsigned round;
    for (round = 0; round < rounds(60000); round++) {
        size_t n = below(4) ? below(200) : below(3500), from, to;
        size_t i;
        bool same = true;
        for (i = 0; i < 8; i++)
            src[below(AREA)] = (unsigned char)rnd();
        switch (below(4)) {
        case 0: from = AREA - n, to = below(AREA - n + 1); break; /* ends at the guard page */
        case 1: to = AREA - n, from = below(AREA - n + 1); break;
        case 2: from = below(AREA - n + 1), to = 0; break;
        default: from = below(AREA - n + 1), to = below(AREA - n + 1); break;
        }
        memcpy(a, src, AREA);
        memcpy(b, src, AREA);
        same = same && hlsnap__rt_memcpy(a + to, src + from, n) == a + to;
        memcpy(b + to, src + from, n);
        same = same && memcmp(a, b, AREA) == 0;
        /* overlapping, near and far */
        if (below(2)) {
            ptrdiff_t near = (ptrdiff_t)from + (ptrdiff_t)below(160) - 80;
            if (near >= 0 && (size_t)near + n <= AREA)
                to = (size_t)near;
        }
        same = same && hlsnap__rt_memmove(a + to, a + from, n) == a + to;
        memmove(b + to, b + from, n);
        same = same && memcmp(a, b, AREA) == 0;
        i = below(512);
        same = same && hlsnap__rt_memset(a + to, (int)i, n) == a + to;
        memset(b + to, (int)i, n);
        same = same && memcmp(a, b, AREA) == 0;
        CHECK(same);
    }
    t_pages_free(a, AREA);
    t_pages_free(b, AREA);
    t_pages_free(src, AREA);
}

/* every small length and alignment, every overlap distance */
static void copy_small(void)
{
    unsigned char a[512], b[512];
    size_t n, to, i;
    for (n = 0; n <= 140; n++)
        for (to = 0; to < 256; to++) {
            for (i = 0; i < sizeof a; i++)
                a[i] = b[i] = (unsigned char)(i * 7 + n);
            hlsnap__rt_memmove(a + to, a + 128, n);
            memmove(b + to, b + 128, n);
            CHECK(memcmp(a, b, sizeof a) == 0);
            hlsnap__rt_memset(a + to, 0x5a, n);
            memset(b + to, 0x5a, n);
            CHECK(memcmp(a, b, sizeof a) == 0);
        }
}

static int sign(int v)
{
    return v > 0 ? 1 : v < 0 ? -1 : 0;
}

static void compare(void)
{
    unsigned char *a = t_pages(AREA), *b = t_pages(AREA);
    unsigned round;
    for (round = 0; round < rounds(200000); round++) {
        size_t n = below(4) ? below(40) : below(600);
        unsigned char *x = a + (below(2) ? AREA - n : below(AREA - n)),
                      *y = b + (below(2) ? AREA - n : below(AREA - n));
        int c = (int)below(300) - 20;
        size_t i;
        for (i = 0; i < n; i++)
            x[i] = y[i] = (unsigned char)(below(3) ? 'a' + below(3) : rnd());
        if (n && below(4))
            y[below(n)] = (unsigned char)rnd();
        CHECK(sign(hlsnap__rt_memcmp(x, y, n)) == sign(memcmp(x, y, n)));
        CHECK(hlsnap__rt_memchr(x, c, n) == memchr(x, c, n));
        CHECK(hlsnap__rt_memchr(x, 'b', n) == memchr(x, 'b', n));
        CHECK(hlsnap__rt_strnlen((char *)x, n) == strnlen((char *)x, n));
        CHECK(sign(hlsnap__rt_strncmp((char *)x, (char *)y, n)) ==
              sign(strncmp((char *)x, (char *)y, n)));
    }
    /* n may be larger than the object when the byte is found */
    memset(a, 'q', AREA);
    for (round = 1; round < 80; round++) {
        a[AREA - 1] = 'z';
        CHECK(hlsnap__rt_memchr(a + AREA - round, 'z', SIZE_MAX) == a + AREA - 1);
        a[AREA - 1] = 0;
        CHECK(hlsnap__rt_strnlen((char *)a + AREA - round, SIZE_MAX) == round - 1);
    }
    t_pages_free(a, AREA);
    t_pages_free(b, AREA);
}

static void fill_string(char *s, size_t n, unsigned letters)
{
    size_t i;
    for (i = 0; i < n; i++) {
        s[i] = (char)(letters ? 'a' + (int)below(letters) : (int)below(256));
        if (s[i] == 0)
            s[i] = 1;
    }
    s[n] = 0;
}

static void strings(void)
{
    char *a = (char *)t_pages(AREA), *b = (char *)t_pages(AREA), to1[2048], to2[2048];
    unsigned round;
    for (round = 0; round < rounds(200000); round++) {
        size_t n = below(4) ? below(40) : below(600), m = below(2) ? n : below(8), k = below(700);
        char *x = a + (below(2) ? AREA - n - 1 : below(AREA - n - 1)),
             *y = b + (below(2) ? AREA - m - 1 : below(1000));
        int c = (int)below(300) - 20;
        unsigned letters = (unsigned)below(4);
        fill_string(x, n, letters);
        fill_string(y, m, letters);
        if (m == n && below(2)) {
            memcpy(y, x, n);
            if (n && below(2))
                y[below(n)] = (char)rnd();
        }
        CHECK(hlsnap__rt_strlen(x) == strlen(x));
        CHECK(sign(hlsnap__rt_strcmp(x, y)) == sign(strcmp(x, y)));
        CHECK(sign(hlsnap__rt_strncmp(x, y, k)) == sign(strncmp(x, y, k)));
        CHECK(hlsnap__rt_strchr(x, c) == strchr(x, c));
        CHECK(hlsnap__rt_strchr(x, 0) == strchr(x, 0));
        CHECK(hlsnap__rt_strrchr(x, c) == strrchr(x, c));
        CHECK(hlsnap__rt_strrchr(x, 'a') == strrchr(x, 'a'));
        CHECK(hlsnap__rt_strrchr(x, 0) == strrchr(x, 0));
        CHECK(hlsnap__rt_strstr(x, y) == strstr(x, y));
        memset(to1, '?', sizeof to1);
        memset(to2, '?', sizeof to2);
        CHECK(hlsnap__rt_strcpy(to1, x) == to1);
        strcpy(to2, x);
        CHECK(memcmp(to1, to2, sizeof to1) == 0);
        CHECK(hlsnap__rt_strcat(to1, y) == to1);
        strcat(to2, y);
        CHECK(memcmp(to1, to2, sizeof to1) == 0);
        CHECK(hlsnap__rt_strncpy(to1 + 3, x, k) == to1 + 3);
        memset(to2 + 3, 0, k);
        memcpy(to2 + 3, x, strnlen(x, k));
        CHECK(memcmp(to1, to2, sizeof to1) == 0);
    }
    t_pages_free((unsigned char *)a, AREA);
    t_pages_free((unsigned char *)b, AREA);
}

/* ---- formatting ---- */

enum { TEXT = 4096 };
static char f_ours[TEXT], f_libc[TEXT];

/* the result, the text and one byte behind it */
static void f_compare(const char *fmt, size_t cap, int got, int want)
{
    size_t used = cap == 0 ? 0 : (size_t)want < cap ? (size_t)want + 1 : cap;
    bool ok = got == want && memcmp(f_ours, f_libc, used) == 0 && f_ours[used] == '\x7e';
    if (!ok && strchr(fmt, '#') && strpbrk(fmt, "gG") && strpbrk(f_libc, "eE") &&
        (strstr(f_libc, "1.e") || strstr(f_libc, "1.E"))) {
        t_known++; /* glibc 2.36 drops the zeros of %#g when the value rounds up to 10^n */
        return;
    }
    if (!ok && test_bad < 40)
        printf("# format '%s' cap %zu: %d '%.80s', libc %d '%.80s'\n", fmt, cap, got, f_ours, want,
               f_libc);
    CHECK(ok);
}

#define BOTH(cap, ...)                                                                             \
    do {                                                                                           \
        memset(f_ours, '\x7e', sizeof f_ours);                                                     \
        int got_ = hlsnap__format(f_ours, (cap), __VA_ARGS__);                                  \
        int want_ = snprintf(f_libc, (cap), __VA_ARGS__);                                          \
        f_compare(fmt, (cap), got_, want_);                                                        \
    } while (0)

static double random_double(void)
{
    static const double special[] = {0.0,
                                     1.0,
                                     0.5,
                                     1.5,
                                     2.5,
                                     0.1,
                                     9.5,
                                     99.5,
                                     999999.5,
                                     9999995e-1,
                                     1e15,
                                     1e16,
                                     1e17,
                                     1e21,
                                     1e22,
                                     1e23,
                                     123456789.0,
                                     0.0001,
                                     0.00001,
                                     0.00009999995,
                                     DBL_MAX,
                                     DBL_MIN,
                                     DBL_EPSILON,
                                     4.9406564584124654e-324,
                                     2.2250738585072009e-308,
                                     9007199254740993.0,
                                     0.125,
                                     0.375};
    uint64_t bits = rnd();
    double v;
    switch (below(8)) {
    case 0: v = special[below(sizeof special / sizeof *special)]; break;
    case 1:
        bits &= 0x800fffffffffffffu;
        memcpy(&v, &bits, 8);
        break; /* denormal */
    case 2:
        bits |= 0x7ff0000000000000u;
        if (below(2))
            bits &= 0xfff0000000000000u;
        memcpy(&v, &bits, 8);
        break;
    case 3:
        v = (double)(int64_t)(bits >> below(64)) / (double)((uint64_t)1 << below(20));
        break; /* exact ties */
    case 4: v = (double)below(100000) / 1000.0; break;
    case 5: v = (double)below(10000) * pow(10.0, (double)below(600) - 300.0); break;
    case 6: v = ((double)below(1000000) + 0.5) * pow(10.0, (double)below(16) - 8.0); break;
    default: memcpy(&v, &bits, 8); break; /* any bit pattern */
    }
    return below(4) ? v : -v;
}

static uint64_t random_integer(void)
{
    uint64_t v = rnd();
    if (below(8) == 0)
        return below(3);
    if (below(8) == 0)
        return (uint64_t)1 << below(64);
    v >>= below(64);
    return below(3) ? v : 0 - v;
}

/* "%<flags><width><.prec><length><conv>" between literal text; star says which numbers are
 * arguments */
static void random_spec(char *fmt, const char *length, char conv, int star[2], bool plain)
{
    static const char flags[] = "-+ #0";
    char *p = fmt;
    size_t i;
    if (below(3) == 0)
        *p++ = 'x';
    *p++ = '%';
    for (i = below(4); i > 0; i--) {
        char c = flags[below(5)];
        if (!plain || c == '-')
            *p++ = c;
    }
    star[0] = star[1] = 0;
    if (below(2))
        p += sprintf(p, "%u", (unsigned)(1 + (below(8) ? below(40) : below(400))));
    else if (below(4) == 0)
        *p++ = '*', star[0] = 1;
    if (conv != 'c' && conv != 'p' && below(2)) {
        *p++ = '.';
        if (below(4) == 0)
            *p++ = '*', star[1] = 1;
        else if (below(8))
            p += sprintf(p, "%u", (unsigned)(below(8) ? below(25) : below(1300)));
    }
    p += sprintf(p, "%s%c%s", length, conv, below(3) ? "" : "%%y");
}

#define WITH_STARS(cap, type, value)                                                               \
    do {                                                                                           \
        int w_ = (int)below(60) - 30, p_ = (int)below(40) - 10;                                    \
        type v_ = (type)(value);                                                                   \
        if (star[0] && star[1])                                                                    \
            BOTH(cap, fmt, w_, p_, v_);                                                            \
        else if (star[0])                                                                          \
            BOTH(cap, fmt, w_, v_);                                                                \
        else if (star[1])                                                                          \
            BOTH(cap, fmt, p_, v_);                                                                \
        else                                                                                       \
            BOTH(cap, fmt, v_);                                                                    \
    } while (0)

#if defined(__GNUC__)
/* the formats under test are odd on purpose */
#pragma GCC diagnostic ignored "-Wformat"
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
#endif

static void format_one_integer(size_t cap)
{
    static const char *const lengths[] = {"", "hh", "h", "l", "ll", "z", "t", "j"};
    char fmt[64];
    int star[2];
    size_t l = below(8);
    uint64_t v = random_integer();
    random_spec(fmt, lengths[l], "diuxXo"[below(6)], star, false);
    switch (l) {
    case 0: WITH_STARS(cap, int, v); break;
    case 1: WITH_STARS(cap, int, v); break; /* wider than char: the conversion has to cut */
    case 2: WITH_STARS(cap, int, v); break;
    case 3: WITH_STARS(cap, long, v); break;
    case 4: WITH_STARS(cap, long long, v); break;
    case 5: WITH_STARS(cap, size_t, v); break;
    case 6: WITH_STARS(cap, ptrdiff_t, v); break;
    default: WITH_STARS(cap, intmax_t, v); break;
    }
}

static void format_one_text(size_t cap)
{
    char fmt[64], s[200];
    int star[2];
    switch (below(3)) {
    case 0:
        random_spec(fmt, "", 'c', star, true);
        WITH_STARS(cap, int, 1 + below(255));
        break;
    case 1:
        fill_string(s, below(sizeof s - 1), 0);
        random_spec(fmt, "", 's', star, true);
        WITH_STARS(cap, const char *, s);
        break;
    default:
        random_spec(fmt, "", 'p', star, true);
        WITH_STARS(cap, void *, (uintptr_t)random_integer() | 1u);
    }
}

static void format_random(unsigned long cases)
{
    unsigned long i;
    for (i = 0; i < cases; i++) {
        size_t cap = below(4) ? TEXT - 1 : below(60);
        size_t kind = below(10);
        char fmt[64];
        int star[2];
        if (kind < 3) {
            format_one_integer(cap);
        } else if (kind < 4) {
            format_one_text(cap);
        } else {
            random_spec(fmt, below(4) ? "" : "l", "feEFgGaAgfe"[below(11)], star, false);
            if (strchr(fmt, '#') && strpbrk(fmt, "gG"))
                cap = TEXT - 1; /* f_compare has to see the whole text */
            WITH_STARS(cap, double, random_double());
        }
    }
}

static void format_floats(void)
{
    static const char convs[] = "feg";
    char fmt[16];
    int p, e;
    size_t c;
    /* every power of two at every kind of precision */
    for (e = -1074; e <= 1023; e += getenv("QUICK") ? 7 : 1)
        for (c = 0; c < 3; c++)
            for (p = 0; p < 1200; p = p < 20 ? p + 1 : p * 3 / 2) {
                sprintf(fmt, "%%.%d%c", p, convs[c]);
                BOTH(TEXT - 1, fmt, ldexp(1.0, e));
                BOTH(TEXT - 1, fmt, -ldexp(1.0 - DBL_EPSILON, e));
            }
    for (p = 0; p < 1200; p++) {
        sprintf(fmt, "%%.%df", p);
        BOTH(TEXT - 1, fmt, DBL_MAX);
        BOTH(TEXT - 1, fmt, 4.9406564584124654e-324);
        BOTH(TEXT - 1, fmt, 2.2250738585072009e-308);
    }
}

static int ours(char *to, size_t cap, const char *fmt, ...)
{
    va_list ap;
    int n;
    va_start(ap, fmt);
    n = hlsnap__rt_vformat(to, cap, fmt, ap);
    va_end(ap);
    return n;
}

static void format_own(void)
{
    char b[128];
    int poison = 77;
    const char *fmt = "";
    CHECK(ours(b, sizeof b, "") == 0 && b[0] == 0);
    CHECK(ours(NULL, 0, "%d-%s", 12, "abc") == 6);
    CHECK(ours(b, 1, "%d", 12) == 2 && b[0] == 0);
    CHECK(ours(b, 4, "%s", "abcdef") == 6 && strcmp(b, "abc") == 0);
    CHECK(ours(b, sizeof b, "%p", (void *)NULL) == 3 && strcmp(b, "0x0") == 0);
    CHECK(ours(b, sizeof b, "%s|", (const char *)NULL) == 7 && strcmp(b, "(null)|") == 0);
    CHECK(ours(b, sizeof b, "%5%d", 3) == 4 && strcmp(b, "%5%d") == 0);
    CHECK(ours(b, sizeof b, "%d %n %d", 1, &poison, 2) == 7 && strcmp(b, "1 %n %d") == 0 &&
          poison == 77);
    CHECK(ours(b, sizeof b, "%d %Lf %d", 1, (long double)2, 3) == 8 && strcmp(b, "1 %Lf %d") == 0);
    CHECK(ours(b, sizeof b, "%ls", L"x") == 3 && strcmp(b, "%ls") == 0);
    CHECK(ours(b, sizeof b, "%y%s", "x") == 4 && strcmp(b, "%y%s") == 0);
    CHECK(ours(b, sizeof b, "a%") == 2 && strcmp(b, "a%") == 0);
    CHECK(ours(b, sizeof b, "a%-08.3") == 7 && strcmp(b, "a%-08.3") == 0);
    CHECK(ours(b, sizeof b, "a%ll") == 4 && strcmp(b, "a%ll") == 0);
    CHECK(ours(b, sizeof b, "100%%") == 4 && strcmp(b, "100%") == 0);
    CHECK(ours(b, sizeof b, "%%%d%%%%", 7) == 4 && strcmp(b, "%7%%") == 0);
    CHECK(ours(b, sizeof b, "%2147483647d", 1) == INT_MAX && b[127] == 0 && b[126] == ' ');
    CHECK(ours(b, sizeof b, "x%2147483647d", 1) == -1 && b[0] == 'x' && b[127] == 0);
    CHECK(ours(b, sizeof b, "%99999999999999999999d", 1) == -1);
    CHECK(ours(b, sizeof b, "%.2147483646f", 1.5) == -1 && strncmp(b, "1.5000", 6) == 0);
    CHECK(ours(b, sizeof b, "%.2147483645f", 1.5) == INT_MAX);
    CHECK(ours(b, sizeof b, "%.99999999999s", "abc") == 3);
    CHECK(ours(b, sizeof b, "%*d|", INT_MIN, 1) == -1 && b[0] == '1');
    CHECK(ours(b, sizeof b, "%.*d", INT_MIN, 1) == 1);
    CHECK(ours(b, sizeof b, "%#g", 999999.5) == 11 && strcmp(b, "1.00000e+06") == 0);
    CHECK(ours(b, sizeof b, "%#.2g", 99.9) == 7 && strcmp(b, "1.0e+02") == 0);
    CHECK(ours(b, sizeof b, "%#.3g", 9.9996) == 4 && strcmp(b, "10.0") == 0);
    CHECK(ours(b, sizeof b, "%.17g %.17g", 0.1, 1e23) == 42 &&
          strcmp(b, "0.10000000000000001 9.9999999999999992e+22") == 0);
    BOTH(TEXT - 1, "%d %s %5.2f|%c|%lu|%zd", -1, "two", 3.005, 'x', ULONG_MAX, (size_t)9);
    BOTH(TEXT - 1, "%d%d%d%d%d%d%d%d%d%d", 1, 2, 3, 4, 5, 6, 7, 8, 9, 10);
    BOTH(TEXT - 1, "%f%f%f%f%f%f%f%f%f%f", 1., 2., 3., 4., 5., 6., 7., 8., 9., 10.);
    BOTH(TEXT - 1, "%d%f%d%f%d%f%d%f%s%f", 1, 2., 3, 4., 5, 6., 7, 8., "s", 10.);
    BOTH(TEXT - 1, "%lld %llu %hhd %hd", LLONG_MIN, ULLONG_MAX, -1, -1);
}

/* ---- heap ---- */

static size_t touched(unsigned char *p, size_t n)
{
    unsigned char *map = (unsigned char *)malloc(n / 4096);
    size_t i, count = 0;
    if (map == NULL || mincore(p, n, map) != 0)
        exit(2);
    for (i = 0; i < n / 4096; i++)
        count += map[i] & 1u;
    free(map);
    return count;
}

static void heap_pages(void)
{
    size_t n = 16u << 20;
    unsigned char *p = t_pages(n);
    hlsnap__rt_heap *h = (hlsnap__rt_heap *)(void *)p;
    void *a, *b;
    CHECK(touched(p, n) == 0);
    hlsnap__rt_heap_init(h, p, n);
    CHECK(touched(p, n) == 1);
    a = hlsnap__rt_heap_alloc(h, 100);
    CHECK(a != NULL && touched(p, n) == 1);
    b = hlsnap__rt_heap_alloc(h, 8u << 20);
    CHECK(b != NULL && touched(p, n) == 1); /* a large block costs only its head */
    CHECK(hlsnap__rt_heap_realloc(h, b, 12u << 20) == b && touched(p, n) == 1);
    CHECK(hlsnap__rt_heap_realloc(h, b, 1u << 20) == b && touched(p, n) == 1);
    CHECK(hlsnap__rt_heap_free(h, b) == 0 && touched(p, n) == 1);
    CHECK(hlsnap__rt_heap_free(h, a) == 0 && h->top == h->base);
    CHECK(hlsnap__rt_heap_check(h) == 0 && touched(p, n) == 1);
    t_pages_free(p, n);
}

typedef struct live_block {
    unsigned char *p;
    size_t n;
    unsigned char seed;
} live_block;

enum { SLOTS = 1500 };

static bool content_ok(const live_block *b, size_t n)
{
    size_t i;
    for (i = 0; i < n; i++)
        if (b->p[i] != (unsigned char)(b->seed + i * 31))
            return false;
    return true;
}

static void content_set(live_block *b)
{
    size_t i;
    b->seed = (unsigned char)rnd();
    for (i = 0; i < b->n; i++)
        b->p[i] = (unsigned char)(b->seed + i * 31);
}

static size_t random_size(size_t max)
{
    size_t n = below(8) ? below(200) : below(4) ? below(3000) : below(max);
    return below(50) ? n : 0;
}

/* one random step; returns false when something is wrong */
static bool torture_step(hlsnap__rt_heap *h, unsigned char *start, size_t size, live_block *b,
                         size_t max, size_t *used)
{
    size_t n = random_size(max), keep;
    unsigned char *p;
    if (b->p != NULL && below(3)) {
        bool ok = content_ok(b, b->n) && hlsnap__rt_heap_free(h, b->p) == 0;
        bool twice = hlsnap__rt_heap_free(h, b->p) == 1;
        *used -= b->n;
        b->p = NULL;
        return ok && twice;
    }
    if (b->p != NULL) {
        p = (unsigned char *)hlsnap__rt_heap_realloc(h, b->p, n);
        if (p == NULL)
            return content_ok(b, b->n);
        b->p = p;
        keep = n < b->n ? n : b->n;
        *used -= b->n;
        if (!content_ok(b, keep))
            return false;
    } else {
        p = (unsigned char *)hlsnap__rt_heap_alloc(h, n);
        if (p == NULL)
            return true;
        b->p = p;
    }
    b->n = n;
    *used += n;
    content_set(b);
    return ((uintptr_t)p & 15u) == 0 && p >= start && p + n <= start + size;
}

static void heap_torture(size_t size, size_t offset, size_t max, unsigned steps)
{
    static live_block slot[SLOTS];
    unsigned char *region = t_pages(size), *start = region + offset;
    hlsnap__rt_heap outside, *h = offset % 2 ? &outside : (hlsnap__rt_heap *)(void *)start;
    size_t used = 0, peak = 0, half = 0;
    unsigned i;
    memset(slot, 0, sizeof slot);
    memset(region, 0xa5, size); /* memory need not be zero */
    hlsnap__rt_heap_init(h, start, size - offset);
    for (i = 0; i < steps; i++) {
        CHECK(torture_step(h, start, size - offset, &slot[below(SLOTS)], max, &used));
        peak = used > peak ? used : peak;
        if (i % 61 == 0)
            CHECK(hlsnap__rt_heap_check(h) == 0);
        if (i == steps / 2)
            half = h->high - h->base;
    }
    printf("# torture %zu: peak %zu live bytes, high water %zu (half way %zu)\n", size, peak,
           (size_t)(h->high - h->base), half);
    if (size > 4 * peak)
        CHECK(h->high - h->base < peak + peak / 2 + 64 * SLOTS); /* churn does not creep */
    for (i = 0; i < SLOTS; i++)
        if (slot[i].p != NULL)
            CHECK(content_ok(&slot[i], slot[i].n) && hlsnap__rt_heap_free(h, slot[i].p) == 0);
    CHECK(hlsnap__rt_heap_check(h) == 0 && h->top == h->base);
    t_pages_free(region, size);
}

static void heap_reuse(void)
{
    size_t n = 1u << 20, size, i;
    unsigned char *p = t_pages(n);
    hlsnap__rt_heap *h = (hlsnap__rt_heap *)(void *)p;
    void *a, *b, *c, *d, *e;
    uintptr_t top;
    hlsnap__rt_heap_init(h, p, n);
    for (size = 1; size < 40000;
         size += size / 9 + 1) { /* the same size comes back from the same place */
        a = hlsnap__rt_heap_alloc(h, size);
        b = hlsnap__rt_heap_alloc(h, 1);
        top = h->top;
        CHECK(hlsnap__rt_heap_free(h, a) == 0);
        CHECK(hlsnap__rt_heap_alloc(h, size) == a && h->top == top);
        CHECK(hlsnap__rt_heap_free(h, a) == 0 && hlsnap__rt_heap_free(h, b) == 0 &&
              h->top == h->base);
    }
    a = hlsnap__rt_heap_alloc(h, 1000); /* neighbours join, in every order */
    b = hlsnap__rt_heap_alloc(h, 1000);
    c = hlsnap__rt_heap_alloc(h, 1000);
    d = hlsnap__rt_heap_alloc(h, 1000);
    top = h->top;
    CHECK(!hlsnap__rt_heap_free(h, a) && !hlsnap__rt_heap_free(h, c) &&
          !hlsnap__rt_heap_free(h, b));
    CHECK(hlsnap__rt_heap_alloc(h, 3000) == a && h->top == top);
    CHECK(hlsnap__rt_heap_free(h, b) == 1 &&
          hlsnap__rt_heap_free(h, c) == 1); /* now inside another block */
    e = hlsnap__rt_heap_realloc(h, a, 40);  /* shrink, then grow back in place */
    CHECK(e == a && hlsnap__rt_heap_realloc(h, a, 3000) == a && h->top == top);
    CHECK(!hlsnap__rt_heap_free(h, a) && !hlsnap__rt_heap_free(h, d) && h->top == h->base);
    a = hlsnap__rt_heap_alloc(h, 0);
    b = hlsnap__rt_heap_alloc(h, 0);
    CHECK(a != NULL && b != NULL && a != b);
    CHECK(hlsnap__rt_heap_realloc(h, a, 0) == a);
    c = hlsnap__rt_heap_realloc(h, NULL, 10);
    CHECK(c != NULL);
    for (i = 10; i < 500000; i += 777) /* the last block grows where it is */
        CHECK(hlsnap__rt_heap_realloc(h, c, i) == c);
    CHECK(hlsnap__rt_heap_check(h) == 0);
    t_pages_free(p, n);
}

/* Any alignment, from fragments and from the tail; what lies around stays as it is. */
static void heap_aligned(void)
{
    enum { HELD = 300 };
    static struct { unsigned char *p; size_t size; unsigned char fill; } held[HELD];
    size_t n = 4u << 20, round, failed = 0, made = 0;
    unsigned char *p = t_pages(n);
    hlsnap__rt_heap *h = (hlsnap__rt_heap *)(void *)p;
    hlsnap__rt_heap_init(h, p, n);
    CHECK(hlsnap__rt_heap_aligned(h, 0, 1) == NULL && hlsnap__rt_heap_aligned(h, 48, 1) == NULL);
    CHECK(hlsnap__rt_heap_aligned(h, (size_t)1 << 63, 1) == NULL && hlsnap__rt_heap_aligned(h, 64, SIZE_MAX - 100) == NULL);
    CHECK(hlsnap__rt_heap_aligned(h, (size_t)1 << 39, (size_t)1 << 39) == NULL && h->top == h->base);
    CHECK(hlsnap__rt_heap_usable(h, NULL) == 0 && hlsnap__rt_heap_usable(h, p) == 0);
    for (round = 0; round < rounds(60000); round++) {
        const size_t i = below(HELD), align = (size_t)1 << below(14), size = below(8) ? below(600) : below(30000);
        size_t k;
        if (held[i].p) {
            for (k = 0; k < held[i].size && held[i].p[k] == held[i].fill; k++) {}
            CHECK(k == held[i].size);
            CHECK(hlsnap__rt_heap_free(h, held[i].p) == 0 && hlsnap__rt_heap_usable(h, held[i].p) == 0);
            held[i].p = NULL;
            continue;
        }
        held[i].p = (unsigned char *)(below(3) ? hlsnap__rt_heap_aligned(h, align, size) : hlsnap__rt_heap_alloc(h, size));
        failed += held[i].p == NULL;
        if (!held[i].p) continue;
        made++;
        CHECK((uintptr_t)held[i].p % 16 == 0);
        held[i].size = hlsnap__rt_heap_usable(h, held[i].p);
        CHECK(held[i].size >= size && held[i].size < size + 64);
        held[i].fill = (unsigned char)rnd();
        memset(held[i].p, held[i].fill, held[i].size); /* all of it is the owner's */
        if (round % 256 == 0) CHECK(hlsnap__rt_heap_check(h) == 0);
        if (round % 4096 == 0) hlsnap__rt_heap_trim(h);
    }
    CHECK(made > rounds(20000) && hlsnap__rt_heap_check(h) == 0);
    for (round = 0; round < 14; round++) {
        void *q = hlsnap__rt_heap_aligned(h, (size_t)1 << round, 10);
        CHECK(q && (uintptr_t)q % ((size_t)1 << round) == 0 && hlsnap__rt_heap_free(h, q) == 0);
    }
    memset(held, 0, sizeof(held));
    t_pages_free(p, n);
}

/* Free memory is zero behind it; live blocks and the lists are as before; nothing that was zero is written. */
static void heap_trim(void)
{
    size_t n = 8u << 20, i, size[40];
    unsigned char *p = t_pages(n), *b[40];
    hlsnap__rt_heap *h = (hlsnap__rt_heap *)(void *)p;
    hlsnap__rt_heap_init(h, p, n);
    for (i = 0; i < 40; i++) {
        size[i] = 24 + i * i * 100;
        b[i] = (unsigned char *)hlsnap__rt_heap_alloc(h, size[i]);
        memset(b[i], 0x5a, size[i]);
    }
    for (i = 0; i < 40; i += 3) CHECK(hlsnap__rt_heap_free(h, b[i]) == 0); /* alone */
    CHECK(hlsnap__rt_heap_free(h, b[38]) == 0); /* the last: the tail has it */
    hlsnap__rt_heap_trim(h);
    CHECK(hlsnap__rt_heap_check(h) == 0);
    for (i = 0; i < 40; i++) {
        size_t k, bad = 0;
        const bool is_free = i % 3 == 0 || i == 38;
        for (k = is_free ? 16 : 0; k + (is_free ? 8 : 0) < size[i]; k++) bad += b[i][k] != (is_free ? 0 : 0x5a);
        CHECK_EQ(bad, 0);
    }
    for (i = h->top; i < h->high && *(unsigned char *)i == 0; i++) {}
    CHECK(i == h->high);
    for (i = 0; i < 40; i++) if (i % 3 && i != 38) CHECK(hlsnap__rt_heap_free(h, b[i]) == 0);
    CHECK(h->top == h->base && hlsnap__rt_heap_check(h) == 0);
    t_pages_free(p, n);
    p = t_pages(n);
    h = (hlsnap__rt_heap *)(void *)p;
    hlsnap__rt_heap_init(h, p, n);
    b[0] = (unsigned char *)hlsnap__rt_heap_alloc(h, 4u << 20); /* never written: read only */
    b[1] = (unsigned char *)hlsnap__rt_heap_alloc(h, 100);
    CHECK(hlsnap__rt_heap_free(h, b[0]) == 0);
    CHECK(mprotect(p + 4096, 1000 * 4096, PROT_READ) == 0); /* a write would end this test */
    hlsnap__rt_heap_trim(h);
    CHECK(hlsnap__rt_heap_check(h) == 0);
    t_pages_free(p, n);
}

static void heap_full(void)
{
    static void *p[40000];
    size_t n = 1u << 20, count = 0, again = 0, i;
    unsigned char *r = t_pages(n);
    hlsnap__rt_heap *h = (hlsnap__rt_heap *)(void *)r;
    hlsnap__rt_heap_init(h, r, n);
    CHECK(hlsnap__rt_heap_alloc(h, SIZE_MAX) == NULL &&
          hlsnap__rt_heap_alloc(h, SIZE_MAX - 7) == NULL);
    CHECK(hlsnap__rt_heap_alloc(h, SIZE_MAX / 2) == NULL && hlsnap__rt_heap_alloc(h, n) == NULL);
    while ((p[count] = hlsnap__rt_heap_alloc(h, 24)) != NULL)
        count++;
    CHECK(count > (n - 8192) / 32 && hlsnap__rt_heap_check(h) == 0);
    CHECK(hlsnap__rt_heap_realloc(h, p[3], 100) == NULL &&
          hlsnap__rt_heap_realloc(h, p[3], SIZE_MAX) == NULL);
    for (i = 0; i < count; i += 2)
        CHECK(hlsnap__rt_heap_free(h, p[i]) == 0);
    CHECK(hlsnap__rt_heap_alloc(h, 64) == NULL); /* no two neighbours are free */
    for (i = 0; i < count; i += 2, again++)
        CHECK((p[i] = hlsnap__rt_heap_alloc(h, 24)) != NULL);
    CHECK(hlsnap__rt_heap_alloc(h, 24) == NULL && hlsnap__rt_heap_check(h) == 0);
    for (i = 0; i < count; i++)
        CHECK(hlsnap__rt_heap_free(h, p[(i * 7919) % count]) == 0);
    CHECK(h->top == h->base && hlsnap__rt_heap_check(h) == 0);
    p[0] = hlsnap__rt_heap_alloc(h, h->end - h->base - 8); /* all of it at once */
    CHECK(p[0] != NULL && hlsnap__rt_heap_alloc(h, 0) == NULL &&
          hlsnap__rt_heap_free(h, p[0]) == 0);
    /* one fitting block behind many misfits of its bin is still found when the tail is gone */
    for (i = 0; i < 40; i++) {
        p[2 * i] = hlsnap__rt_heap_alloc(h, i == 0 ? 4500 : 4200);
        p[2 * i + 1] = hlsnap__rt_heap_alloc(h, 8);
    }
    p[90] = hlsnap__rt_heap_alloc(h, h->end - h->top - 8);
    for (i = 0; i < 40; i++)
        CHECK(hlsnap__rt_heap_free(h, p[2 * i]) == 0);
    CHECK(p[90] != NULL && hlsnap__rt_heap_alloc(h, 4500) == p[0]);
    for (i = 0; i < 200; i++) { /* regions too small or badly aligned */
        hlsnap__rt_heap_init(h, r + 4096 + i % 16, i);
        p[0] = hlsnap__rt_heap_alloc(h, 1);
        CHECK(p[0] == NULL || ((unsigned char *)p[0] >= r + 4096 &&
                               (unsigned char *)p[0] + 1 <= r + 4096 + i % 16 + i));
        hlsnap__rt_heap_init(h, h, i);
        CHECK(hlsnap__rt_heap_alloc(h, 1) == NULL);
    }
    t_pages_free(r, n);
}

static void heap_misuse(void)
{
    size_t n = 1u << 20, i, wrong = 0;
    unsigned char *r = t_pages(n), *a, *b, *c, local[64];
    hlsnap__rt_heap *h = (hlsnap__rt_heap *)(void *)r;
    hlsnap__rt_heap_init(h, r, n);
    a = (unsigned char *)hlsnap__rt_heap_alloc(h, 500);
    b = (unsigned char *)hlsnap__rt_heap_alloc(h, 500);
    c = (unsigned char *)hlsnap__rt_heap_alloc(h, 500);
    CHECK(hlsnap__rt_heap_free(h, NULL) == 0);
    CHECK(hlsnap__rt_heap_free(h, local) == 1 &&
          hlsnap__rt_heap_free(h, (void *)(uintptr_t)16) == 1);
    CHECK(hlsnap__rt_heap_free(h, (void *)UINTPTR_MAX) == 1 &&
          hlsnap__rt_heap_free(h, r + n + 64) == 1);
    CHECK(hlsnap__rt_heap_realloc(h, local, 8) == NULL &&
          hlsnap__rt_heap_realloc(h, a + 16, 8) == NULL);
    for (i = 0; i < n; i++)
        if (r + i != a && r + i != b && r + i != c)
            wrong += hlsnap__rt_heap_free(h, r + i) == 0;
    CHECK(wrong == 0 && hlsnap__rt_heap_check(h) == 0);
    CHECK(hlsnap__rt_heap_free(h, c) == 0 &&
          hlsnap__rt_heap_free(h, c) == 1); /* given back to the tail */
    c = (unsigned char *)hlsnap__rt_heap_alloc(h, 500);
    memset(b, 0xff, 520); /* runs over into c's head */
    CHECK(hlsnap__rt_heap_free(h, c) == 1 && hlsnap__rt_heap_free(h, b) == 2 &&
          hlsnap__rt_heap_check(h) != 0);
    CHECK(hlsnap__rt_heap_free(h, a) == 0);
    memset(a, 0xff, 500);                      /* use after free breaks the links */
    CHECK(hlsnap__rt_heap_alloc(h, 500) != a); /* the bin is given up, not followed */
    t_pages_free(r, n);
}

/* random damage anywhere among the blocks: only no crash, no hang, no address outside */
static void heap_damage(void)
{
    enum { COUNT = 200 };
    size_t n = 64u << 10;
    unsigned char *r = t_pages(n), *p[COUNT];
    hlsnap__rt_heap *h = (hlsnap__rt_heap *)(void *)r;
    unsigned round, i;
    for (round = 0; round < 3000; round++) {
        memset(p, 0, sizeof p);
        hlsnap__rt_heap_init(h, r, n);
        for (i = 0; i < 1500; i++) {
            unsigned char **q = &p[below(COUNT)];
            uintptr_t top = h->top;
            size_t size = random_size(5000), at;
            if (*q != NULL && below(2)) {
                (void)hlsnap__rt_heap_free(h, *q);
                *q = NULL;
            } else {
                *q = (unsigned char *)(*q && below(2) ? hlsnap__rt_heap_realloc(h, *q, size)
                                                      : hlsnap__rt_heap_alloc(h, size));
                if (*q != NULL && (*q < r || *q + size > r + n))
                    test_check(0, "a block lies in the region", __FILE__, __LINE__);
            }
            if (below(40) == 0 && top > h->base) {
                size_t len = 1 + below(40);
                uint64_t word = below(2) ? rnd() : (uintptr_t)r + below(n);
                at = h->base - (uintptr_t)r + below(top - h->base);
                len = at + len > n ? n - at : len;
                if (below(2) && at + 8 <= n)
                    memcpy(r + at, &word, 8);
                else
                    memset(r + at, (int)rnd(), len);
            }
            (void)hlsnap__rt_heap_free(h, r + below(n) / 16 * 16);
        }
        (void)hlsnap__rt_heap_check(h);
        CHECK(true);
    }
    t_pages_free(r, n);
}

/* ---- random ---- */

static void random_test(void)
{
    static const uint32_t state[16] = {0x61707865, 0x3320646e, 0x79622d32, 0x6b206574, 0x03020100,
                                       0x07060504, 0x0b0a0908, 0x0f0e0d0c, 0x13121110, 0x17161514,
                                       0x1b1a1918, 0x1f1e1d1c, 0x00000001, 0x09000000, 0x4a000000,
                                       0x00000000}; /* RFC 8439 2.3.2 */
    static const uint8_t want[64] = {
        0x10, 0xf1, 0xe7, 0xe4, 0xd1, 0x3b, 0x59, 0x15, 0x50, 0x0f, 0xdd, 0x1f, 0xa3,
        0x20, 0x71, 0xc4, 0xc7, 0xd1, 0xf4, 0xc7, 0x33, 0xc0, 0x68, 0x03, 0x04, 0x22,
        0xaa, 0x9a, 0xc3, 0xd4, 0x6c, 0x4e, 0xd2, 0x82, 0x64, 0x46, 0x07, 0x9f, 0xaa,
        0x09, 0x14, 0xc2, 0xd7, 0x05, 0xd9, 0x8b, 0x02, 0xa2, 0xb5, 0x12, 0x9c, 0xd1,
        0xde, 0x16, 0x4e, 0xb9, 0xcb, 0xd0, 0x83, 0xe8, 0xa2, 0x50, 0x3c, 0x4e};
    uint8_t out[64], seed[32], big[5000], parts[5000];
    hlsnap__rt_random r, q;
    uint32_t s[16];
    size_t i, n, ones = 0;
    hlsnap__rt_chacha_block(state, out);
    CHECK(memcmp(out, want, 64) == 0);
    for (i = 0; i < 32; i++)
        seed[i] = (uint8_t)i;
    hlsnap__rt_random_seed(&r, seed);
    hlsnap__rt_random_bytes(&r, big, 224);
    memcpy(s, state, sizeof s);
    s[12] = s[13] = s[14] = 0;
    hlsnap__rt_chacha_block(s, out);
    CHECK(memcmp(out + 32, big, 32) == 0 && memcmp(out, r.key, 32) == 0); /* little-endian host */
    s[12] = 3;
    hlsnap__rt_chacha_block(s, out);
    CHECK(memcmp(out, big + 160, 64) == 0 && r.left == 0 && r.counter == 4);
    for (i = 0, n = 0; i < sizeof r.out; i++)
        n += r.out[i];
    CHECK(n == 0); /* wiped */
    hlsnap__rt_random_bytes(&r, big, 100);
    for (i = 0, n = 0; i < 132; i++)
        n += r.out[i];
    CHECK(n == 0 && r.left == 124 && r.out[132] + r.out[133] + r.out[134] + r.out[135] != 0);
    hlsnap__rt_random_seed(&r, seed); /* the stream does not depend on how it is asked for */
    hlsnap__rt_random_bytes(&r, big, sizeof big);
    hlsnap__rt_random_seed(&q, seed);
    for (i = 0; i < sizeof parts; i += n) {
        n = below(70);
        n = n > sizeof parts - i ? sizeof parts - i : n;
        hlsnap__rt_random_bytes(&q, parts + i, n);
    }
    CHECK(memcmp(big, parts, sizeof big) == 0 && memcmp(&r, &q, sizeof r) == 0);
    for (i = 0; i < 8 * sizeof big; i++)
        ones += (unsigned)big[i / 8] >> i % 8 & 1u;
    CHECK(ones > 19400 && ones < 20600);
    seed[31] ^= 1;
    hlsnap__rt_random_seed(&q, seed);
    hlsnap__rt_random_bytes(&q, parts, 32);
    CHECK(memcmp(big, parts, 32) != 0);
}

static void format_random_cases(void)
{
    const char *n = getenv("RT_CASES");
    format_random(n ? strtoul(n, NULL, 10) : getenv("QUICK") ? 5000 : 500000);
    printf("# %lu cases of glibc's %%#g left out\n", t_known);
}
static void heap_torture_1m(void) { heap_torture(1u << 20, 0, 20000, getenv("QUICK") ? 5000 : 200000); }
static void heap_torture_32m(void) { heap_torture(32u << 20, 4096 + 7, 20000, getenv("QUICK") ? 5000 : 200000); }
static void heap_torture_256k(void) { heap_torture(256u << 10, 48, 60000, getenv("QUICK") ? 5000 : 200000); }

/* ---- text of a guest: what may be shown ---- */

static void shown_text(void) {
    static const struct { const char *in, *out; } rows[] = {
        {"", ""}, {"plain ~", "plain ~"}, {"a\tb", "a\tb"}, {"a\\b", "a\\x5cb"}, {"\x01\x1b[0m\x7f", "\\x01\\x1b[0m\\x7f"},
        {"\xc3\xa4\xc2\xa0", "\xc3\xa4\xc2\xa0"}, {"\xe4\xb8\xad\xf0\x9f\x98\x80", "\xe4\xb8\xad\xf0\x9f\x98\x80"},
        {"e\xcc\x81", "e\xcc\x81"},                                     /* combining: writing needs it */
        {"\xee\x80\x80\xef\xbf\xbd", "\xee\x80\x80\xef\xbf\xbd"},       /* private use, replacement character */
        {"\xc2\x80\xc2\x9b\x31m", "\\xc2\\x80\\xc2\\x9b\x31m"},       /* C1: CSI */
        {"\xe2\x80\xa8", "\\xe2\\x80\\xa8"}, {"\xe2\x80\xa9", "\\xe2\\x80\\xa9"},
        {"\xe2\x80\xae", "\\xe2\\x80\\xae"}, {"\xd8\x9c", "\\xd8\\x9c"}, {"\xef\xbb\xbf", "\\xef\\xbb\\xbf"},
        {"\xf3\xa0\x81\x81", "\\xf3\\xa0\\x81\\x81"},                 /* a tag, which shows as nothing */
        {"\xed\xa0\x80", "\\xed\\xa0\\x80"}, {"\xed\xbf\xbf", "\\xed\\xbf\\xbf"}, {"\xed\x9f\xbf", "\xed\x9f\xbf"}, /* surrogates */
        {"\xc0\x8a", "\\xc0\\x8a"}, {"\xc1\xbf", "\\xc1\\xbf"}, {"\xe0\x82\x80", "\\xe0\\x82\\x80"}, /* overlong */
        {"\xf0\x80\x80\x8a", "\\xf0\\x80\\x80\\x8a"}, {"\xf4\x90\x80\x80", "\\xf4\\x90\\x80\\x80"}, {"\xf5\x80", "\\xf5\\x80"},
        {"\xef\xbf\xbe", "\\xef\\xbf\\xbe"}, {"\xf0\x9f\xbf\xbf", "\\xf0\\x9f\\xbf\\xbf"}, {"\xef\xb7\x90", "\\xef\\xb7\\x90"}, /* noncharacters */
        {"\xe2\x82", "\\xe2\\x82"}, {"\xe2\x82x\xc3\xa4", "\\xe2\\x82x\xc3\xa4"}, {"\xf0\x9f\x98", "\\xf0\\x9f\\x98"}, /* cut off */
        {"\xe2\xe2\x82\xac", "\\xe2\xe2\x82\xac"}, {"\xac\xe2\x82\xac\xac", "\\xac\xe2\x82\xac\\xac"}};
    char to[64], whole[64];
    size_t i, cap, n;
    for (i = 0; i < HLSNAP_COUNT(rows); i++) {
        const size_t size = strlen(rows[i].in), full = strlen(rows[i].out);
        CHECK_EQ(hlsnap__readable(to, sizeof(to), rows[i].in, size, true), full);
        CHECK_STR(to, rows[i].out);
        CHECK(hlsnap__printable(to, sizeof(to), rows[i].in, size, false) >= size);
        for (n = 0; to[n]; n++) CHECK(to[n] >= 0x20 && to[n] < 0x7f);
        for (cap = 1; cap <= full; cap++) { /* less room: whole characters and escapes from the start */
            n = hlsnap__readable(to, cap, rows[i].in, size, true);
            CHECK(n < cap && n == strlen(to) && memcmp(to, rows[i].out, n) == 0);
            CHECK_EQ(hlsnap__utf8_whole(to, n), n);
        }
    }
    CHECK_EQ(hlsnap__readable(to, sizeof(to), "a\0b", 3, true), 6); /* a zero, too */
    CHECK_STR(to, "a\\x00b");
    for (n = 0; n <= 9; n++) { /* two ASCII, then 3 + 4 bytes */
        static const size_t want[] = {0, 1, 2, 2, 2, 5, 5, 5, 5, 9};
        memcpy(whole, "ab\xe2\x82\xac\xf0\x9f\x98\x80", 9);
        CHECK_EQ(hlsnap__utf8_whole(whole, n), want[n]);
    }
    CHECK_EQ(hlsnap__utf8_whole("\x80\x80\x80\x80\x80", 5), 5);
    CHECK_EQ(hlsnap__utf8_whole("\xff", 1), 0); /* looked at as the beginning of one: the next line has it */
}

static size_t encode(uint32_t c, char to[4]) {
    static const uint8_t lead[] = {0, 0, 0xc0, 0xe0, 0xf0};
    size_t n = c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4, i;
    for (i = n; i-- > 1; c >>= 6) to[i] = (char)(0x80 | (c & 0x3f));
    to[0] = (char)(lead[n - (n == 1)] | c);
    return n;
}

/* Every code point against the categories of Python's Unicode tables: what is a control, a format character, a separator of lines, a
   surrogate or no character is escaped; of the rest only what lies in blocks for more of them. */
static void shown_all_characters(void) {
    FILE *f = popen("python3 -c \"\nimport sys, unicodedata as u\nsys.stdout.write(''.join('#' if u.category(chr(c)) in ('Cc', 'Cf', 'Cs', 'Zl', 'Zp') else "
                    "'-' if u.category(chr(c)) == 'Cn' else '.' for c in range(0x110000)))\n\" 2>/dev/null", "r");
    char *all = (char *)malloc(0x110001), text[4], to[32];
    size_t n = f ? fread(all, 1, 0x110001, f) : 0, hidden = 0;
    uint32_t c;
    if (f) pclose(f);
    if (n != 0x110000) {
        free(all);
        SKIP("no python3");
    }
    for (c = 0; c < 0x110000; c++) {
        const size_t size = encode(c, text), got = hlsnap__readable(to, sizeof(to), text, size, false);
        const bool plain = got == size && memcmp(to, text, size) == 0;
        const bool block = (c >= 0xfff0 && c < 0xfffc) || (c >= 0x2060 && c < 0x2070) || c >> 12 == 0xe0 || (c >= 0x13430 && c < 0x13440) ||
                           c == '\\' || (c & 0xfffe) == 0xfffe || (c >= 0xfdd0 && c < 0xfdf0) || c == 0x890 || c == 0x891;
        CHECK(plain || got == 4 * size);
        if (plain == (all[c] == '#' || block) && !(all[c] == '.' && c >= 0x13430 && c < 0x13440))
            CHECK_EQ(c, -1);
        hidden += !plain;
    }
    CHECK(hidden > 6000 && hidden < 7000); /* 2,048 surrogates and 4,096 of the block of tags most of them */
    free(all);
}

static const test_row tests[] = {
    TEST(copy_small), TEST(copy), TEST(compare), TEST(strings), TEST(format_own), TEST(format_floats),
    TEST(format_random_cases), TEST(heap_pages), TEST(heap_reuse), TEST(heap_aligned), TEST(heap_trim), TEST(heap_full), TEST(heap_misuse),
    TEST(heap_torture_1m), TEST(heap_torture_32m), TEST(heap_torture_256k), TEST(heap_damage), TEST(random_test), TEST(shown_text), TEST(shown_all_characters)};

int main(int argc, char **argv) { return TEST_MAIN(tests, argc, argv); }

/* test.h - a test harness in one screen. TAP lines ("ok 1 - name", "not ok", "# SKIP why", "1..N"), then one line of counts;
   exit 0 = all passed, 1 = some failed, 77 = all skipped. argv[1], when given, runs only tests whose name contains it. With TIMES=1 in
   the environment each says what it took.

    static void adds(void) { CHECK(1 + 1 == 2); CHECK_EQ(1 + 1, 2); }
    static const test_row tests[] = {TEST(adds)};
    int main(int argc, char **argv) { return TEST_MAIN(tests, argc, argv); }
*/
#ifndef TEST_H
#define TEST_H
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>

typedef struct test_row { const char *name; void (*run)(void); } test_row;
static int test_bad;           /* checks that failed in the test that runs */
static const char *test_why;   /* why it is skipped */
static const char *test_words; /* where the library puts its words: beside a check that fails stand the last ones */

#define TEST(f) {#f, f}
#define TEST_MAIN(rows, argc, argv) test_main(rows, sizeof(rows) / sizeof((rows)[0]), argc, argv)
#define CHECK(c) test_check(!!(c), #c, __FILE__, __LINE__)
#define CHECK_EQ(a, b) test_eq((long long)(a), (long long)(b), #a, #b, __FILE__, __LINE__)
#define CHECK_STR(a, b) test_str(a, b, #a, #b, __FILE__, __LINE__)
#define SKIP(why) do { test_why = why; return; } while (0)

static void test_failed(void) {
    test_bad++;
    if (test_words && *test_words) printf("# the last error was: %s\n", test_words);
}

__attribute__((unused)) static int test_check(int ok, const char *text, const char *file, int line) {
    if (!ok) printf("# %s:%d: %s\n", file, line, text);
    if (!ok) test_failed();
    return ok;
}

__attribute__((unused)) static int test_eq(long long a, long long b, const char *ta, const char *tb, const char *file, int line) {
    if (a == b) return 1;
    printf("# %s:%d: %s is %lld, %s is %lld\n", file, line, ta, a, tb, b);
    return test_failed(), 0;
}

__attribute__((unused)) static int test_str(const char *a, const char *b, const char *ta, const char *tb, const char *file, int line) {
    if (strcmp(a, b) == 0) return 1;
    printf("# %s:%d: %s is '%s', %s is '%s'\n", file, line, ta, a, tb, b);
    return test_failed(), 0;
}

/* A command of the shell: its exit status; -1: it had none. */
__attribute__((unused, format(printf, 1, 2))) static int sh(const char *fmt, ...) {
    char line[2000];
    va_list ap;
    int r;
    va_start(ap, fmt);
    vsnprintf(line, sizeof(line), fmt, ap);
    va_end(ap);
    fflush(stdout);
    r = system(line);
    return WIFEXITED(r) ? WEXITSTATUS(r) : -1;
}

static double test_clock(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static int test_main(const test_row *rows, size_t num, int argc, char **argv) {
    int passed = 0, failed = 0, skipped = 0, n = 0;
    double began;
    size_t i;
    for (i = 0; i < num; i++) {
        if (argc > 1 && !strstr(rows[i].name, argv[1])) continue;
        test_bad = 0;
        test_why = NULL;
        began = test_clock();
        rows[i].run();
        n++;
        if (getenv("TIMES")) printf("# %s: %.2f s\n", rows[i].name, test_clock() - began);
        if (test_bad) failed++;
        else if (test_why) skipped++;
        else passed++;
        printf("%s %d - %s%s%s\n", test_bad ? "not ok" : "ok", n, rows[i].name, test_why ? " # SKIP " : "", test_why ? test_why : "");
        fflush(stdout);
    }
    printf("1..%d\n%d passed, %d failed, %d skipped\n", n, passed, failed, skipped);
    return failed ? 1 : n && skipped == n ? 77 : 0;
}
#endif

/* test_guest.c - what the guest runtime gives to guests, tried from inside of them: guest_rt.c, built in all ways.
   run: GUEST_DIR=DIR ./test_guest     needs /dev/kvm */
#define HLSNAP_IMPLEMENTATION
#include "hlsnap.h"
#include "hlsnap_kvm.h"
#include "test.h"
#include <stdlib.h>

static hlsnap_error err;
static char out_bytes[3][400000];
static size_t out_size[3], out_calls;
static char log_last[1100], log_all[4096];
static int log_num;

static void take(int fd, const void *bytes, size_t size, void *user) {
    (void)user;
    out_calls++;
    if (out_size[fd] + size > sizeof(out_bytes[fd])) size = sizeof(out_bytes[fd]) - out_size[fd];
    memcpy(out_bytes[fd] + out_size[fd], bytes, size);
    out_size[fd] += size;
}
static void line(int level, const char *text, size_t size, void *user) {
    (void)level;
    (void)user;
    log_num++;
    if (size < sizeof(log_last)) memcpy(log_last, text, size + 1);
    snprintf(log_all + strlen(log_all), sizeof(log_all) - strlen(log_all), "%.*s\n", (int)size, text);
}

static hlsnap_sandbox *start(const char *name, const hlsnap_sandbox_desc *d) {
    char path[1000];
    hlsnap_guest_desc g = HLSNAP_ZERO;
    hlsnap_sandbox *sb;
    snprintf(path, sizeof(path), "%s/%s", getenv("GUEST_DIR") ? getenv("GUEST_DIR") : "/bin", name);
    if (access(path, R_OK)) return test_why = "the guest was not built", (hlsnap_sandbox *)NULL;
    if (access("/dev/kvm", R_OK | W_OK)) return test_why = "no /dev/kvm", (hlsnap_sandbox *)NULL;
    g.path = path;
    g.heap_size = 4u << 20;
    if (hlsnap_sandbox_create(&g, d, &sb, &err) == HLSNAP_OK) return sb;
    CHECK_STR(err.msg, "");
    return NULL;
}

static uint64_t number(hlsnap_sandbox *sb, const char *name) {
    hlsnap_value v = hlsnap_u64(0);
    if (hlsnap_sandbox_call(sb, name, HLSNAP_NO_ARGS, &v, &err)) CHECK_STR(err.msg, "");
    return v.type == HLSNAP_U32 ? v.as.u32 : v.as.u64;
}

static void starts(hlsnap_sandbox *sb, const hlsnap_sandbox_desc *d) {
    hlsnap_snapshot *s;
    hlsnap_sandbox *other;
    CHECK_EQ(number(sb, "count"), 0); /* not in the run that it was given in */
    CHECK_EQ(hlsnap_sandbox_snapshot(sb, &s, &err), HLSNAP_OK);
    CHECK_EQ(number(sb, "count"), 0);
    CHECK_EQ(hlsnap_sandbox_restore(sb, s, &err), HLSNAP_OK);
    log_num = 0;
    CHECK_EQ(number(sb, "count"), 1); /* before the call */
    CHECK(log_num == 1 && strcmp(log_last, "started") == 0);
    CHECK_EQ(number(sb, "count"), 1); /* once */
    CHECK_EQ(hlsnap_sandbox_create_from(s, d, &other, &err), HLSNAP_OK);
    CHECK_EQ(number(other, "count"), 1);
    CHECK_EQ(number(other, "count"), 1);
    CHECK_EQ(hlsnap_sandbox_call(other, "watch", HLSNAP_ARGS(hlsnap_bool(false)), NULL, &err), HLSNAP_OK);
    hlsnap_snapshot_release(s);
    CHECK_EQ(hlsnap_sandbox_snapshot(other, &s, &err), HLSNAP_OK);
    CHECK_EQ(hlsnap_sandbox_restore(other, s, &err), HLSNAP_OK);
    CHECK_EQ(number(other, "count"), 1); /* none any more */
    hlsnap_sandbox_destroy(other);
    hlsnap_snapshot_release(s);
}

static void writes(hlsnap_sandbox *sb) {
    const hlsnap_value bytes = hlsnap_bytes("\0raw\xff\n", 6);
    hlsnap_value v;
    size_t i;
    memset(out_size, 0, sizeof(out_size));
    CHECK_EQ(hlsnap_sandbox_call(sb, "output", HLSNAP_ARGS(hlsnap_i32(1), bytes), &v, &err), HLSNAP_OK);
    CHECK_EQ(v.as.u32, 6);
    CHECK_EQ(hlsnap_sandbox_call(sb, "output", HLSNAP_ARGS(hlsnap_i32(2), bytes), NULL, &err), HLSNAP_OK);
    CHECK_EQ(hlsnap_sandbox_call(sb, "output", HLSNAP_ARGS(hlsnap_i32(3), bytes), NULL, &err), HLSNAP_OK); /* goes nowhere */
    CHECK_EQ(hlsnap_sandbox_call(sb, "output", HLSNAP_ARGS(hlsnap_i32(1), hlsnap_bytes("", 0)), NULL, &err), HLSNAP_OK);
    CHECK(out_size[1] == 6 && out_size[2] == 6 && memcmp(out_bytes[1], "\0raw\xff\n", 6) == 0 && memcmp(out_bytes[2], out_bytes[1], 6) == 0);
    out_size[1] = out_calls = 0;
    CHECK_EQ(hlsnap_sandbox_call(sb, "output_many", HLSNAP_ARGS(hlsnap_u32(300001)), NULL, &err), HLSNAP_OK);
    CHECK(out_size[1] == 300001 && out_calls >= 9 && out_calls <= 12); /* the default mailbox has 64 KiB */
    for (i = 0; i < out_size[1] && (unsigned char)out_bytes[1][i] == (unsigned char)(i * 7 >> 3); i++) {}
    CHECK_EQ(i, 300001);
}

static uint64_t stored(hlsnap_sandbox *sb) {
    hlsnap_snapshot *s;
    hlsnap_snapshot_info info;
    if (!CHECK(hlsnap_sandbox_snapshot(sb, &s, &err) == HLSNAP_OK)) return 0;
    hlsnap_snapshot_get_info(s, &info);
    hlsnap_snapshot_release(s);
    return info.stored_pages;
}

/* What is free is not stored; what lives is. */
static void trims(hlsnap_sandbox *sb, bool libc) {
    uint64_t before, wasted, trimmed;
    CHECK_EQ(hlsnap_sandbox_call(sb, "trim", HLSNAP_NO_ARGS, NULL, &err), HLSNAP_OK);
    before = stored(sb);
    CHECK_EQ(hlsnap_sandbox_call(sb, "waste", HLSNAP_ARGS(hlsnap_u32(512u << 10)), NULL, &err), HLSNAP_OK);
    wasted = stored(sb);
    CHECK_EQ(hlsnap_sandbox_call(sb, "trim", HLSNAP_NO_ARGS, NULL, &err), HLSNAP_OK);
    trimmed = stored(sb);
    CHECK(libc || wasted >= before + 3 * 128);
    if (!CHECK(trimmed >= before + 128 && trimmed < before + 128 + 8))
        printf("# stored pages: %llu, %llu with 384 of waste, %llu trimmed\n", (unsigned long long)before, (unsigned long long)wasted,
               (unsigned long long)trimmed);
}

/* How a program rounds is its own also after a restore, as all that functions keep is; else each restore begins afresh. */
static void roundings(hlsnap_sandbox *sb, bool libc) {
    hlsnap_value v = hlsnap_u32(9);
    hlsnap_snapshot *s;
    CHECK_EQ(hlsnap_sandbox_call(sb, "rounds", HLSNAP_ARGS(hlsnap_i32(2)), &v, &err), HLSNAP_OK);
    CHECK_EQ(v.as.u32, 0);
    CHECK_EQ(hlsnap_sandbox_snapshot(sb, &s, &err), HLSNAP_OK);
    CHECK_EQ(hlsnap_sandbox_restore(sb, s, &err), HLSNAP_OK);
    CHECK_EQ(hlsnap_sandbox_call(sb, "rounds", HLSNAP_ARGS(hlsnap_i32(0)), &v, &err), HLSNAP_OK);
    CHECK_EQ(v.as.u32, libc ? 0x22 : 0);
    hlsnap_snapshot_release(s);
}

static void all(const char *name, bool libc) {
    hlsnap_sandbox_desc d = HLSNAP_ZERO;
    hlsnap_sandbox *sb;
    hlsnap_value v;
    struct timespec t;
    uint64_t now;
    d.hypervisor = hlsnap_kvm();
    d.output = take;
    d.log = line;
    d.log_level = 4;
    log_all[0] = 0;
    sb = start(name, &d);
    if (!sb) return;
    if (CHECK(hlsnap_sandbox_call(sb, "checks", HLSNAP_NO_ARGS, &v, &err) == HLSNAP_OK)) CHECK_STR(v.str, "");
    else CHECK_STR(err.msg, "");
    if (libc) CHECK(strstr(log_all, "system call socketpair (53) is not in a guest: ENOSYS\nsystem call socket (41) is not in a guest: ENOSYS\n") != NULL);
    starts(sb, &d);
    roundings(sb, libc);
    writes(sb);
    trims(sb, libc);
    clock_gettime(CLOCK_REALTIME, &t);
    now = number(sb, "now");
    CHECK(now + 1000000000u >= (uint64_t)t.tv_sec * 1000000000u && now < ((uint64_t)t.tv_sec + 60) * 1000000000u);
    CHECK_EQ(hlsnap_sandbox_call(sb, "fail_assert", HLSNAP_NO_ARGS, NULL, &err), HLSNAP_ERR_ABORT);
    if (!libc) CHECK_STR(err.msg, "guest abort -3: file.c:12: fn: assertion failed: 1 == 2");
    hlsnap_sandbox_destroy(sb);
    d.output = NULL; /* lines, and a clock of none */
    d.no_clock = true;
    sb = start(name, &d);
    if (!sb) return;
    CHECK_EQ(number(sb, "now"), 0);
    CHECK_EQ(hlsnap_sandbox_call(sb, "output", HLSNAP_ARGS(hlsnap_i32(1), hlsnap_bytes("gr\xc3\xbc\xc3\x9f", 6)), NULL, &err), HLSNAP_OK);
    CHECK_STR(log_last, "gr\xc3\xbc\xc3\x9f");
    hlsnap_sandbox_destroy(sb);
    d.log = NULL; /* nobody listens: no exit */
    sb = start(name, &d);
    if (!sb) return;
    CHECK_EQ(hlsnap_sandbox_call(sb, "output_many", HLSNAP_ARGS(hlsnap_u32(300001)), NULL, &err), HLSNAP_OK);
    {
        hlsnap_stats before, after;
        hlsnap_sandbox_get_stats(sb, &before);
        CHECK_EQ(hlsnap_sandbox_call(sb, "output_many", HLSNAP_ARGS(hlsnap_u32(300001)), NULL, &err), HLSNAP_OK);
        hlsnap_sandbox_get_stats(sb, &after);
        CHECK_EQ(after.exits - before.exits, 1);
    }
    hlsnap_sandbox_destroy(sb);
}

static void freestanding(void) { all("guest_rt.elf", false); }
static void freestanding_pie(void) { all("guest_rt_pie.elf", false); }
static void with_libraries(void) { all("guest_rt_musl.elf", false); }

/* What needs an operating system or a libc that was started ends as a fault; nothing else happens. */
static void beyond_libraries(void) {
    static const char *const want[] = {"system call attempted", "(null)", "(null)", "(null)", "system call attempted"};
    hlsnap_sandbox_desc d = HLSNAP_ZERO;
    hlsnap_sandbox *sb;
    hlsnap_snapshot *s;
    int32_t i;
    d.hypervisor = hlsnap_kvm();
    sb = start("guest_rt_musl.elf", &d);
    if (!sb) return;
    CHECK_EQ(hlsnap_sandbox_snapshot(sb, &s, &err), HLSNAP_OK);
    for (i = 0; i < 5; i++) {
        CHECK_EQ(hlsnap_sandbox_call(sb, "beyond", HLSNAP_ARGS(hlsnap_i32(i)), NULL, &err), HLSNAP_ERR_FAULT);
        if (!CHECK(strstr(err.msg, want[i]) != NULL)) printf("# %s\n", err.msg);
        CHECK_EQ(hlsnap_sandbox_restore(sb, s, &err), HLSNAP_OK);
    }
    hlsnap_snapshot_release(s);
    hlsnap_sandbox_destroy(sb);
}
static void linux_program(void) { all("guest_rt_libc.elf", true); }

static const test_row tests[] = {TEST(freestanding), TEST(freestanding_pie), TEST(with_libraries), TEST(beyond_libraries), TEST(linux_program)};
int main(int argc, char **argv) { return TEST_MAIN(tests, argc, argv); }

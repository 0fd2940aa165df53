/* test_cpu.c - CPU levels on KVM: what guests of each are shown, by the instructions themselves. Needs /dev/kvm, and guest_cpu.elf in
   GUEST_DIR; cpu_libc.elf there, a program of glibc, is tried, too. With CPU_SAVE a snapshot of each level is saved in that layout, by
   its level's name; with CPU_LOAD those of that layout, saved on a machine with more, are started here. */
#define HLSNAP_IMPLEMENTATION
#include "hlsnap.h"
#include "hlsnap_kvm.h"
#include "hlsnap_oci.h"
#include "test.h"
#include <stdlib.h>
#include <unistd.h>

static hlsnap_error err;
static const char *const names[] = {"host", "v1", "v2", "v3", "v4"};

static const char *guest_path(const char *name) {
    static char path[512];
    snprintf(path, sizeof(path), "%s/%s", getenv("GUEST_DIR") ? getenv("GUEST_DIR") : ".", name);
    return path;
}

static hlsnap_sandbox_desc desc_new(void) {
    hlsnap_sandbox_desc d = HLSNAP_ZERO;
    d.hypervisor = hlsnap_kvm();
    return d;
}

static hlsnap_result host_add(hlsnap_call *call, void *user) {
    (void)user;
    return hlsnap_call_return(call, hlsnap_i32(hlsnap_call_arg(call, 0).as.i32 + hlsnap_call_arg(call, 1).as.i32));
}
static const hlsnap_function host_functions[] = {{"host_add", "i32(i32,i32)", host_add, NULL}}; /* what cpu_libc.elf calls */

static hlsnap_result start(uint32_t level, hlsnap_sandbox **out) {
    hlsnap_guest_desc g = HLSNAP_ZERO;
    const hlsnap_sandbox_desc d = desc_new();
    g.path = guest_path("guest_cpu.elf");
    g.cpu = (hlsnap_cpu)level;
    return hlsnap_sandbox_create(&g, &d, out, &err);
}

/* The level that is the most here, or HOST: no level can be kept. */
static uint32_t most(void) {
    hlsnap_sandbox *sb = NULL;
    const hlsnap_result r = start(HLSNAP_CPU_V1, &sb);
    hlsnap_sandbox_destroy(sb);
    if (r == HLSNAP_ERR_UNSUPPORTED) printf("# %s\n", err.msg);
    else CHECK_EQ(r, HLSNAP_OK);
    return r ? (uint32_t)HLSNAP_CPU_HOST : hlsnap__cpu_level_in(hlsnap__cpu_features());
}

static void leaf(hlsnap_sandbox *sb, uint32_t function, uint32_t index, uint32_t r[4]) {
    hlsnap_value args[2], out = HLSNAP_ZERO;
    args[0] = hlsnap_u32(function);
    args[1] = hlsnap_u32(index);
    memset(r, 0, 16);
    if (CHECK_EQ(hlsnap_sandbox_call(sb, "cpuid", args, 2, &out, &err), HLSNAP_OK) && CHECK_EQ(out.size, 16)) memcpy(r, out.bytes, 16);
}

/* The features that a guest of a level sees are its level's, and nothing else's; the state that AVX has is off below v3. */
static void shown(hlsnap_sandbox *sb, uint32_t level) {
    uint64_t seen = 0, xcr0 = 0;
    hlsnap_value out = HLSNAP_ZERO;
    char text[400];
    uint32_t i, r[4];
    leaf(sb, 1, 0, r);
    CHECK_EQ(hlsnap_sandbox_call(sb, "first", HLSNAP_NO_ARGS, &out, &err), HLSNAP_OK);
    CHECK_EQ(out.as.u32, r[2]);
    CHECK_EQ(r[2] >> 26 & 1, level >= HLSNAP_CPU_V3); /* XSAVE */
    CHECK_EQ(r[2] >> 27 & 1, level >= HLSNAP_CPU_V3);
    for (i = 0; i < HLSNAP__NUM_CPU_FEATURES; i++) {
        leaf(sb, hlsnap__cpu_rows[i].leaf, 0, r);
        if (r[hlsnap__cpu_rows[i].reg] >> hlsnap__cpu_rows[i].bit & 1) seen |= 1ull << i;
    }
    hlsnap__cpu_names(seen, text, sizeof(text));
    if (!CHECK_EQ(seen, hlsnap__cpu_level_features(level))) printf("# %s sees: %s\n", names[level], text);
    for (i = 1; i < 3; i++) {
        leaf(sb, 7, i, r);
        CHECK(!(r[0] | r[1] | r[2] | r[3]));
    }
    leaf(sb, 0xd, 0, r);
    CHECK_EQ(r[0], level < HLSNAP_CPU_V3 ? 0 : level == HLSNAP_CPU_V3 ? 7 : 0xe7);
    leaf(sb, 0xd, 1, r);
    CHECK(!(r[0] | r[1] | r[2] | r[3]));
    if (level >= HLSNAP_CPU_V3) {
        CHECK_EQ(hlsnap_sandbox_call(sb, "xcr0", HLSNAP_NO_ARGS, &out, &err), HLSNAP_OK);
        xcr0 = out.as.u64;
        CHECK_EQ(hlsnap_sandbox_call(sb, "avx2", HLSNAP_NO_ARGS, NULL, &err), HLSNAP_OK);
    }
    CHECK_EQ(xcr0, level < HLSNAP_CPU_V3 ? 0 : level == HLSNAP_CPU_V3 ? 7 : 0xe7);
}

static void faults(hlsnap_sandbox *sb, const char *function) {
    CHECK_EQ(hlsnap_sandbox_call(sb, function, HLSNAP_NO_ARGS, NULL, &err), HLSNAP_ERR_FAULT);
    CHECK_EQ(err.vector, 6);
}

static void levels(void) {
    const uint32_t top = most();
    hlsnap_snapshot *s[HLSNAP_CPU_V4 + 1] = {NULL};
    hlsnap_sandbox *sb = NULL;
    uint32_t level, i;
    if (!top) SKIP("this KVM keeps no CPU level");
    for (level = 1; level <= HLSNAP_CPU_V4; level++) {
        sb = NULL;
        if (!CHECK_EQ(start(level, &sb), level <= top ? HLSNAP_OK : HLSNAP_ERR_CPU)) printf("# %s: %s\n", names[level], err.msg);
        if (!sb) {
            printf("# %s\n", err.msg);
            continue;
        }
        shown(sb, level);
        CHECK_EQ(hlsnap_sandbox_snapshot(sb, &s[level], &err), HLSNAP_OK);
        if (level < HLSNAP_CPU_V3) {
            faults(sb, "xcr0");
            CHECK_EQ(hlsnap_sandbox_restore(sb, s[level], &err), HLSNAP_OK);
            faults(sb, "avx2");
        }
        hlsnap_sandbox_destroy(sb);
    }
    CHECK_EQ(start(HLSNAP_CPU_HOST, &sb), HLSNAP_OK); /* one sandbox goes through all of them, and back */
    CHECK_EQ(hlsnap_sandbox_snapshot(sb, &s[0], &err), HLSNAP_OK);
    for (i = 0; i < 2; i++)
        for (level = 0; level <= top; level++) {
            CHECK_EQ(hlsnap_sandbox_restore(sb, s[level], &err), HLSNAP_OK);
            if (level) shown(sb, level);
            CHECK_EQ(hlsnap_sandbox_restore(sb, s[level], &err), HLSNAP_OK);
            if (level) shown(sb, level);
        }
    hlsnap_sandbox_destroy(sb);
    for (level = 0; level <= top; level++) {
        if (getenv("CPU_SAVE")) CHECK_EQ(hlsnap_oci_save(getenv("CPU_SAVE"), names[level], s[level], NULL, NULL, &err), HLSNAP_OK);
        hlsnap_snapshot_release(s[level]);
    }
}

/* What a machine with more saved: levels that this one has start, the others and HOST's are refused, and told what would have done. */
static void elsewhere(void) {
    const uint32_t top = most();
    const hlsnap_sandbox_desc d = desc_new();
    char want[64];
    uint32_t level;
    if (!getenv("CPU_LOAD")) SKIP("no CPU_LOAD");
    if (!top) SKIP("this KVM keeps no CPU level");
    snprintf(want, sizeof(want), "guest_desc.cpu of %s would start here", names[top]);
    for (level = 0; level <= HLSNAP_CPU_V3; level++) {
        hlsnap_snapshot *s = NULL;
        hlsnap_sandbox *sb = NULL;
        const bool fits = level && level <= top;
        hlsnap_oci_desc l = HLSNAP_ZERO;
        hlsnap_snapshot_info i;
        l.any_cpu = true; /* to look at, any loads, and says what it fits */
        if (CHECK_EQ(hlsnap_oci_load(getenv("CPU_LOAD"), names[level], &l, &s, NULL, &err), HLSNAP_OK)) {
            hlsnap_snapshot_get_info(s, &i);
            CHECK_EQ(i.cpu, level);
            CHECK(level ? i.baseline == level : i.baseline == HLSNAP_CPU_HOST || i.baseline > top);
            if (!fits) CHECK_EQ(hlsnap_sandbox_create_from(s, &d, &sb, &err), HLSNAP_ERR_CPU);
        }
        hlsnap_snapshot_release(s);
        s = NULL;
        if (!CHECK_EQ(hlsnap_oci_load(getenv("CPU_LOAD"), names[level], NULL, &s, NULL, &err), fits ? HLSNAP_OK : HLSNAP_ERR_CPU) || !s) {
            printf("# %s: %s\n", names[level], err.msg);
            CHECK(strstr(err.msg, want));
            continue;
        }
        if (CHECK_EQ(hlsnap_sandbox_create_from(s, &d, &sb, &err), HLSNAP_OK)) shown(sb, level);
        hlsnap_sandbox_destroy(sb);
        hlsnap_snapshot_release(s);
    }
}

/* A machine with less, as far as loads and starts ask: what is saved here and needs more than v1 is refused there, and told what would
   have done; to look at, it loads, and says what it fits. */
static void less(void) {
    const uint64_t have = hlsnap__cpu_features();
    const hlsnap_sandbox_desc d = desc_new();
    hlsnap_oci_desc l = HLSNAP_ZERO;
    hlsnap_snapshot *s = NULL, *saved = NULL, *before = NULL;
    hlsnap_guest_desc g = HLSNAP_ZERO;
    hlsnap_snapshot_info i;
    hlsnap_sandbox *sb = NULL;
    char dir[] = "/tmp/hlsnap-cpu.XXXXXX", remove[80];
    if (!CHECK(mkdtemp(dir))) return;
    CHECK_EQ(start(HLSNAP_CPU_HOST, &sb), HLSNAP_OK);
    CHECK_EQ(hlsnap_sandbox_snapshot(sb, &saved, &err), HLSNAP_OK);
    hlsnap_sandbox_destroy(sb);
    CHECK_EQ(hlsnap_oci_save(dir, "host", saved, NULL, NULL, &err), HLSNAP_OK);
    hlsnap_snapshot_get_info(saved, &i);
    CHECK_EQ(i.cpu, HLSNAP_CPU_HOST);
    CHECK_EQ(i.baseline, hlsnap__cpu_level_for(have)); /* it needs all that there is */
    __atomic_store_n(&hlsnap__cpu_published, 1ull << 63, __ATOMIC_RELEASE);
    CHECK_EQ(hlsnap_oci_load(dir, "host", NULL, &s, NULL, &err), HLSNAP_ERR_CPU);
    CHECK(strstr(err.msg, "guest_desc.cpu of v1 would start here"));
    l.any_cpu = true;
    CHECK_EQ(hlsnap_oci_load(dir, "host", &l, &s, NULL, &err), HLSNAP_OK);
    hlsnap_snapshot_get_info(s, &i);
    CHECK_EQ(i.baseline, hlsnap__cpu_level_for(have));
    sb = NULL;
    CHECK_EQ(hlsnap_sandbox_create_from(s, &d, &sb, &err), HLSNAP_ERR_CPU);
    CHECK(strstr(err.msg, "guest_desc.cpu of v1 would start here"));
    g.path = guest_path("guest_cpu.elf"); /* before its init, too, a guest of a level demands what the level has */
    g.cpu = HLSNAP_CPU_V2;
    CHECK_EQ(hlsnap_snapshot_from_guest(&g, &before, &err), HLSNAP_OK);
    CHECK_EQ(hlsnap_sandbox_create_from(before, &d, &sb, &err), HLSNAP_ERR_CPU);
    CHECK(strstr(err.msg, "taken with at CPU level v2: sse3 ") && strstr(err.msg, "guest_desc.cpu of v1 would start here"));
    hlsnap_snapshot_release(before);
    __atomic_store_n(&hlsnap__cpu_published, have | 1ull << 63, __ATOMIC_RELEASE);
    CHECK_EQ(hlsnap_sandbox_create_from(s, &d, &sb, &err), HLSNAP_OK);
    hlsnap_sandbox_destroy(sb);
    hlsnap_snapshot_release(s);
    hlsnap_snapshot_release(saved);
    snprintf(remove, sizeof(remove), "rm -rf %s", dir);
    CHECK_EQ(system(remove), 0);
}

/* A program of glibc, whose IFUNCs choose by CPUID in its first instructions, runs at every level. */
static void libc(void) {
    const uint32_t top = most();
    hlsnap_sandbox_desc d = desc_new();
    uint32_t level;
    if (access(guest_path("cpu_libc.elf"), R_OK)) SKIP("no cpu_libc.elf");
    if (!top) SKIP("this KVM keeps no CPU level");
    d.functions = host_functions;
    d.num_functions = HLSNAP_COUNT(host_functions);
    for (level = 0; level <= top; level++) {
        hlsnap_guest_desc g = HLSNAP_ZERO;
        hlsnap_snapshot *s = NULL;
        hlsnap_sandbox *sb = NULL;
        hlsnap_value arg = hlsnap_str("levels"), out = HLSNAP_ZERO;
        int i;
        g.path = guest_path("cpu_libc.elf");
        g.cpu = (hlsnap_cpu)level;
        if (hlsnap_sandbox_create(&g, &d, &sb, &err) == HLSNAP_ERR_UNSUPPORTED && !level) SKIP(err.msg); /* no FSGSBASE */
        if (!CHECK(sb)) {
            printf("# %s: %s\n", names[level], err.msg);
            continue;
        }
        CHECK_EQ(hlsnap_sandbox_snapshot(sb, &s, &err), HLSNAP_OK);
        for (i = 0; i < 2; i++) {
            CHECK_EQ(hlsnap_sandbox_call(sb, "greet", &arg, 1, &out, &err), HLSNAP_OK);
            CHECK(out.str && strncmp(out.str, "hello levels", 12) == 0);
            CHECK_EQ(hlsnap_sandbox_restore(sb, s, &err), HLSNAP_OK);
        }
        hlsnap_sandbox_destroy(sb);
        hlsnap_snapshot_release(s);
    }
}

static const test_row tests[] = {TEST(levels), TEST(less), TEST(elsewhere), TEST(libc)};

int main(int argc, char **argv) {
    if (hlsnap_kvm_probe(&err)) {
        printf("ok 1 - cpu # SKIP %s\n1..1\n0 passed, 0 failed, 1 skipped\n", err.msg);
        return 77;
    }
    return TEST_MAIN(tests, argc, argv);
}

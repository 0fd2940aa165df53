/* maps_fake.h - sandboxes of the fake hypervisor with maps, for test_maps.c and test_map_store.c; behind guest_fake.h and test.h. */
#ifndef MAPS_FAKE_H
#define MAPS_FAKE_H

static hlsnap_map map_of(const char *name, hlsnap_map_mode mode, const char *path) {
    hlsnap_map map = HLSNAP_ZERO;
    map.name = name;
    map.mode = mode;
    map.path = path;
    return map;
}

static hlsnap_sandbox *guest_with(hlsnap_guest_desc g, const hlsnap_map *maps, size_t num) {
    hlsnap_sandbox_desc d = host_desc();
    hlsnap_sandbox *sb = NULL;
    d.maps = maps;
    d.num_maps = num;
    if (!CHECK_EQ(hlsnap_sandbox_create(&g, &d, &sb, &err), HLSNAP_OK)) printf("# %s\n", err.msg);
    return sb;
}

static hlsnap_result from(hlsnap_snapshot *s, const hlsnap_map *maps, size_t num, hlsnap_sandbox **out) {
    hlsnap_sandbox_desc d = host_desc();
    d.maps = maps;
    d.num_maps = num;
    return hlsnap_sandbox_create_from(s, &d, out, &err);
}

/* Where the guest finds it; 0: nowhere. */
static uint64_t found(hlsnap_sandbox *sb, const char *name) {
    hlsnap_value out;
    if (!CHECK_EQ(hlsnap_sandbox_call(sb, "map", HLSNAP_ARGS(hlsnap_str(name), hlsnap_bool(false)), &out, &err), HLSNAP_OK)) return 1;
    return out.as.u64;
}

static uint64_t peek(hlsnap_sandbox *sb, uint64_t gva) {
    hlsnap_value out;
    if (!CHECK_EQ(hlsnap_sandbox_call(sb, "peek", HLSNAP_ARGS(hlsnap_u64(gva)), &out, &err), HLSNAP_OK)) return printf("# %s\n", err.msg), 0;
    return out.as.u64;
}

static hlsnap_snapshot *take(hlsnap_sandbox *sb) {
    hlsnap_snapshot *s = NULL;
    if (!CHECK_EQ(hlsnap_sandbox_snapshot(sb, &s, &err), HLSNAP_OK)) printf("# %s\n", err.msg);
    return s;
}
static void restore(hlsnap_sandbox *sb, hlsnap_snapshot *s) {
    if (!CHECK_EQ(hlsnap_sandbox_restore(sb, s, &err), HLSNAP_OK)) printf("# %s\n", err.msg);
}

#endif

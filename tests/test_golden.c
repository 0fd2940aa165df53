/* test_golden.c - what is on disk and what guests speak may not change by accident: numbers are pinned here, and small layouts
   that are checked in (tests/golden) must load, be written again byte by byte, and answer calls.
   cc:  cc -std=gnu11 -I.. test_golden.c -lcjson -o test_golden
   run: ./test_golden [name]       the goldens are in $GOLDEN_DIR, else ../../tests/golden
        ./test_golden write DIR    makes them anew, as long as the format is version 0 ("Changing the format" in
                                   docs/snapshot-format.md); needs KVM and guest_golden.elf in $GUEST_DIR */
#define HLSNAP_IMPLEMENTATION
#include "hlsnap.h"
#if defined(__x86_64__)
#include "hlsnap_kvm.h"
#endif
#include "hlsnap_oci.h"
#include "test.h"
#include "oci_make.h"

/* ---- tripwires: a change here changes what older files or guests mean ---- */

#define PIN(name, value, number) HLSNAP__STATIC_ASSERT(pin_##name, (value) == (number))
#define PIN_AT(type, field, offset) PIN(type##_##field, offsetof(hlsnap_abi_##type, field), offset)
#define PIN_RESULT(name, number) PIN(name, HLSNAP_##name, number);
#define PIN_TYPE(name, number) PIN(type_##name, HLSNAP_##name, number);

PIN(abi, HLSNAP_ABI_VERSION, 2);
PIN(format, HLSNAP_SNAPSHOT_VERSION, 3);

PIN_RESULT(OK, 0) PIN_RESULT(ERR_ARG, 1) PIN_RESULT(ERR_STATE, 2) PIN_RESULT(ERR_NOT_FOUND, 3) PIN_RESULT(ERR_SIGNATURE, 4)
PIN_RESULT(ERR_CONTRACT, 5) PIN_RESULT(ERR_UNSUPPORTED, 6) PIN_RESULT(ERR_LIMIT, 7) PIN_RESULT(ERR_DUPLICATE, 8)
PIN_RESULT(ERR_MEMORY, 10) PIN_RESULT(ERR_OS, 11) PIN_RESULT(ERR_HYPERVISOR, 12) PIN_RESULT(ERR_BUSY, 13) PIN_RESULT(ERR_FUNCTION, 20)
PIN_RESULT(ERR_FAULT, 21) PIN_RESULT(ERR_ABORT, 22) PIN_RESULT(ERR_CANCELLED, 23) PIN_RESULT(ERR_TIMEOUT, 24)
PIN_RESULT(ERR_PROTOCOL, 25) PIN_RESULT(ERR_EXIT, 26) PIN_RESULT(ERR_ELF, 30) PIN_RESULT(ERR_ELF_SEGMENT, 31) PIN_RESULT(ERR_ELF_DYNAMIC, 32)
PIN_RESULT(ERR_ELF_RELOC, 33) PIN_RESULT(ERR_SELF, 34) PIN_RESULT(ERR_ABI, 35) PIN_RESULT(ERR_LAYOUT, 40)
PIN_RESULT(ERR_INDEX, 41) PIN_RESULT(ERR_AMBIGUOUS, 42) PIN_RESULT(ERR_MANIFEST, 43) PIN_RESULT(ERR_MEDIA_TYPE, 44)
PIN_RESULT(ERR_CONFIG, 45) PIN_RESULT(ERR_JSON, 46) PIN_RESULT(ERR_FILE, 47) PIN_RESULT(ERR_SIZE, 48)
PIN_RESULT(ERR_DIGEST, 49) PIN_RESULT(ERR_VERSION, 50) PIN_RESULT(ERR_ARCH, 51) PIN_RESULT(ERR_CPU, 52)
PIN_RESULT(ERR_CHANGED, 53)
#define ONE(name, number, text) +1
PIN(results, 0 HLSNAP_RESULTS(ONE), 40); /* a new one is pinned above */

PIN_TYPE(VOID, 0) PIN_TYPE(BOOL, 1) PIN_TYPE(I32, 2) PIN_TYPE(U32, 3) PIN_TYPE(I64, 4) PIN_TYPE(U64, 5) PIN_TYPE(F32, 6)
PIN_TYPE(F64, 7) PIN_TYPE(STR, 8) PIN_TYPE(BYTES, 9)
PIN(max_args, HLSNAP_MAX_ARGS, 32);
PIN(max_name, HLSNAP_MAX_NAME, 63);
PIN(max_functions, HLSNAP_MAX_FUNCTIONS, 1024);

PIN(magic, HLSNAP_ABI_MAGIC, 0x0070616e736c68ull);
PIN(port_return, HLSNAP_ABI_PORT_RETURN, 0xe0);
PIN(port_call, HLSNAP_ABI_PORT_CALL, 0xe1);
PIN(op_init, HLSNAP_ABI_OP_INIT, 1);
PIN(op_call, HLSNAP_ABI_OP_CALL, 2);
PIN(op_room, HLSNAP_ABI_OP_ROOM, 3);
PIN(fn_log, HLSNAP_ABI_FN_LOG, 0xfffffff0u);
PIN(fn_abort, HLSNAP_ABI_FN_ABORT, 0xfffffff1u);
PIN(fn_output, HLSNAP_ABI_FN_OUTPUT, 0xfffffff2u);
PIN(fn_exit, HLSNAP_ABI_FN_EXIT, 0xfffffff3u);
PIN(fn_clock, HLSNAP_ABI_FN_CLOCK, 0xfffffff4u);
PIN(fn_map, HLSNAP_ABI_FN_MAP, 0xfffffff5u);
PIN(fn_result, HLSNAP_ABI_FN_RESULT, 0xfffffff6u);
PIN(fn_take, HLSNAP_ABI_FN_TAKE, 0xfffffff7u);
PIN(fn_image, HLSNAP_ABI_FN_IMAGE, 0xfffffff8u);
PIN(image_once, HLSNAP_ABI_IMAGE_ONCE, 1);
PIN(option_output, HLSNAP_ABI_OPTION_OUTPUT, 1);
PIN(option_strict, HLSNAP_ABI_OPTION_STRICT, 2);
PIN(option_clock, HLSNAP_ABI_OPTION_CLOCK, 4);
PIN(status_ok, HLSNAP_ABI_STATUS_OK, 0);
PIN(status_failed, HLSNAP_ABI_STATUS_FAILED, 1);
PIN(status_refused, HLSNAP_ABI_STATUS_REFUSED, 2);
PIN(status_large, HLSNAP_ABI_STATUS_LARGE, 3);
PIN(by_reference, HLSNAP_ABI_REFERENCE, 256);
PIN(identity_offset, HLSNAP_ABI_IDENTITY_OFFSET, 2048);
PIN(runtime_min, HLSNAP_ABI_RUNTIME_MIN, 3072);

PIN(mailbox, sizeof(hlsnap_abi_mailbox), 112);
PIN_AT(mailbox, magic, 0); PIN_AT(mailbox, abi_version, 8); PIN_AT(mailbox, op, 12); PIN_AT(mailbox, in_offset, 16);
PIN_AT(mailbox, in_size, 20); PIN_AT(mailbox, out_offset, 24); PIN_AT(mailbox, out_size, 28); PIN_AT(mailbox, num_calls, 32);
PIN_AT(mailbox, response, 36); PIN_AT(mailbox, num_done, 40); PIN_AT(mailbox, request, 44); PIN_AT(mailbox, entry, 48);
PIN_AT(mailbox, guest_abi, 56); PIN_AT(mailbox, num_exports, 60); PIN_AT(mailbox, realtime_ns, 64);
PIN_AT(mailbox, heap_used, 72); PIN_AT(mailbox, heap_peak, 80); PIN_AT(mailbox, large, 88); PIN_AT(mailbox, room, 96);
PIN_AT(mailbox, room_at, 104);
PIN(reference, sizeof(hlsnap_abi_reference), 16);
PIN_AT(reference, gva, 0); PIN_AT(reference, size, 8);
PIN(message, sizeof(hlsnap_abi_message), 16);
PIN_AT(message, size, 0); PIN_AT(message, function, 4); PIN_AT(message, status, 8); PIN_AT(message, num_values, 12);
PIN(value, sizeof(hlsnap_abi_value), 16);
PIN_AT(value, type, 0); PIN_AT(value, size, 4); PIN_AT(value, bits, 8);
PIN(identity, sizeof(hlsnap_abi_identity), 176);
PIN_AT(identity, magic, 0); PIN_AT(identity, abi_version, 8); PIN_AT(identity, log_level, 12); PIN_AT(identity, id, 16);
PIN_AT(identity, entropy, 32); PIN_AT(identity, generation, 64); PIN_AT(identity, mailbox, 72);
PIN_AT(identity, mailbox_size, 80); PIN_AT(identity, heap, 88); PIN_AT(identity, heap_size, 96); PIN_AT(identity, module, 104);
PIN_AT(identity, tls, 112); PIN_AT(identity, tls_size, 120); PIN_AT(identity, runtime, 128);
PIN_AT(identity, runtime_size, 136); PIN_AT(identity, program, 144); PIN_AT(identity, program_size, 152);
PIN_AT(identity, tsc_scale, 160); PIN_AT(identity, options, 168);
PIN(program, sizeof(hlsnap_abi_program), 72);
PIN_AT(program, entry, 0); PIN_AT(program, phdr, 8); PIN_AT(program, num_phdr, 16); PIN_AT(program, num_args, 24);
PIN_AT(program, num_env, 28); PIN_AT(program, strings, 32); PIN_AT(program, strings_size, 40); PIN_AT(program, files, 48);
PIN_AT(program, files_size, 56); PIN_AT(program, stack_size, 64);

PIN(page, HLSNAP__PAGE, 4096);
PIN(max_pages, HLSNAP__MAX_PAGES, 8388608);
PIN(max_regions, HLSNAP__MAX_REGIONS, 32);
PIN(max_layers, HLSNAP__MAX_LAYERS, 128);
PIN(max_maps, HLSNAP_MAX_MAPS, 16);
PIN(maps_gva, HLSNAP__MAPS_GVA, 0x7f0000000000ull);
PIN(maps_size, HLSNAP__MAPS_SIZE, 1ull << 36);
PIN(maps_step, HLSNAP__MAPS_STEP, 1ull << 21);
PIN(map_read, HLSNAP_MAP_READ, 0); PIN(map_private, HLSNAP_MAP_PRIVATE, 1); PIN(map_shared, HLSNAP_MAP_SHARED, 2);
PIN(max_extents, HLSNAP__OCI_MAX_EXTENTS, 32768);
PIN(chunk, HLSNAP__OCI_CHUNK, 65536);
PIN(json_max, HLSNAP__OCI_JSON_MAX, 1048576);
PIN(layer_max, HLSNAP__OCI_MAX_SIZE, 1ull << 35);
PIN(layers_written, HLSNAP__OCI_LAYERS, 32);
PIN(lock_gc, HLSNAP__OCI_LOCK_GC, 0);
PIN(lock_index, HLSNAP__OCI_LOCK_INDEX, 1);

static void words(void) {
    static const char kinds[] = "text rodata data tls heap stack mailbox identity ";
    static const char features[] =
        "sse3 1 2 0 0,pclmul 1 2 1 0,ssse3 1 2 9 0,fma 1 2 12 6,cx16 1 2 13 0,sse4_1 1 2 19 0,sse4_2 1 2 20 0,movbe 1 2 22 0,"
        "popcnt 1 2 23 0,aes 1 2 25 0,avx 1 2 28 6,f16c 1 2 29 6,rdrand 1 2 30 0,bmi1 7 1 3 0,avx2 7 1 5 6,bmi2 7 1 8 0,erms 7 1 9 0,"
        "avx512f 7 1 16 0xe6,avx512dq 7 1 17 0xe6,rdseed 7 1 18 0,adx 7 1 19 0,avx512ifma 7 1 21 0xe6,clflushopt 7 1 23 0,"
        "clwb 7 1 24 0,avx512cd 7 1 28 0xe6,sha_ni 7 1 29 0,avx512bw 7 1 30 0xe6,avx512vl 7 1 31 0xe6,avx512vbmi 7 2 1 0xe6,"
        "avx512vbmi2 7 2 6 0xe6,gfni 7 2 8 0,vaes 7 2 9 6,vpclmulqdq 7 2 10 6,avx512vnni 7 2 11 0xe6,avx512bitalg 7 2 12 0xe6,"
        "avx512vpopcntdq 7 2 14 0xe6,rdpid 7 2 22 0,movdiri 7 2 27 0,fsrm 7 3 4 0,lzcnt 0x80000001u 2 5 0,";
#define ROW(name, leaf, reg, bit, xcr0) #name " " #leaf " " #reg " " #bit " " #xcr0 ","
    char found[200] = "";
    uint32_t i;
    CHECK_STR(HLSNAP__CPU_FEATURES(ROW), features);
    for (i = 0; i < HLSNAP__NUM_KINDS; i++) strcat(strcat(found, hlsnap__kind_names[i]), " ");
    CHECK_STR(found, kinds);
    CHECK_STR(HLSNAP__OCI_INDEX_TYPE, "application/vnd.oci.image.index.v1+json");
    CHECK_STR(HLSNAP__OCI_MANIFEST_TYPE, "application/vnd.oci.image.manifest.v1+json");
    CHECK_STR(HLSNAP__OCI_ARTIFACT_TYPE, "application/vnd.hlsnap.snapshot.v1");
    CHECK_STR(HLSNAP__OCI_CONFIG_TYPE, "application/vnd.hlsnap.snapshot.config.v1+json");
    CHECK_STR(HLSNAP__OCI_MEMORY_TYPE, "application/vnd.hlsnap.snapshot.memory.v1");
    CHECK_STR(HLSNAP__OCI_CHUNKS_TYPE, "application/vnd.hlsnap.snapshot.chunks.v1");
    CHECK_STR(HLSNAP__OCI_REF_NAME, "org.opencontainers.image.ref.name");
    CHECK_STR(HLSNAP__OCI_TITLE, "org.opencontainers.image.title");
    CHECK_STR(HLSNAP__OCI_LOCK, ".hlsnap.lock");
    CHECK_STR(HLSNAP__OCI_TEMP, ".hlsnap-tmp");
}

/* ---- goldens without a guest: made here, so that what is loaded can be compared, and written again ---- */

static hlsnap_error err;
static const char *golden;

/* A machine of no particular kind: loads anywhere. */
static hlsnap_snapshot *plain(hlsnap_snapshot *s) {
    s->guest->features = 0;
    s->guest->id = hlsnap__guest_id(s->guest);
    return s;
}

static hlsnap_snapshot *small(void) { return plain(snapshot_small(1)); }

/* Every number as large, every name as long as it may be. */
#define HIGH 0x7ef800000000ull
#define TOP 8388608
static hlsnap_snapshot *extreme(void) {
    static const char name[] = "a_name_of_sixty-three_bytes_with_\"quotes\",_\\_and_\xc3\xa4\xc3\xb6\xc3\xbc\xe2\x82\xac_here";
    static const char longest[] = "f23456789.123456789:123456789$123456789-123456789_12345678901_z";
    static const char all[] = "bytes(bool,i32,u32,i64,u64,f32,f64,str,bytes,bool,i32,u32,i64,u64,f32,f64,str,bytes,bool,i32,u32,i64,"
                              "u64,f32,f64,str,bytes,bool,i32,u32,i64,u64)";
    static const hlsnap__region rows[] = {
        {HLSNAP__TEXT, HIGH, 1},           {HLSNAP__HEAP, HIGH + 2 * P, 4194304}, {HLSNAP__STACK, HIGH + 4194307 * P, 4128530},
        {HLSNAP__MAILBOX, HIGH + (TOP - 65765) * P, 65536}, {HLSNAP__TLS, HIGH + (TOP - 2) * P, 1}, {HLSNAP__IDENTITY, HIGH + (TOP - 1) * P, 1}};
    static const hlsnap__extent e[] = {{0, 1, 0, 0}, {2, 1, 0, 1}, {4194305, 1, 0, 2}, {8322836, 1, 0, 3}, {8388606, 1, 0, 4}};
    hlsnap__guest *g = hlsnap__guest_alloc(NULL);
    hlsnap_snapshot *s;
    uint32_t i;
    g->initialized = true;
    g->layout.base = HIGH;
    g->layout.pages = TOP;
    for (i = 0; i < HLSNAP_COUNT(rows); i++) g->layout.regions[g->layout.num_regions++] = rows[i];
    g->contract.num_exports = g->contract.num_imports = 2;
    g->contract.exports = (hlsnap__decl *)hlsnap__alloc(2, sizeof(hlsnap__decl), NULL);
    g->contract.imports = (hlsnap__decl *)hlsnap__alloc(2, sizeof(hlsnap__decl), NULL);
    decl(&g->contract.exports[0], longest, all);
    decl(&g->contract.exports[1], "_", "void()");
    decl(&g->contract.imports[0], longest, all);
    decl(&g->contract.imports[1], "_", "void()");
    g->entry = HIGH + P - 1;
    g->module = HIGH + 4194306 * P - 1;
    g->tls_size = P - 3072;
    g->elf_entry = g->load_address = UINT64_MAX;
    CHECK_EQ(strlen(name), 63);
    CHECK_EQ(strlen(longest), 63);
    strcpy(g->name, name);
    memset(g->build_id, 'f', 47);
    strcpy(g->cpu_vendor, " !+-._09azAZ");
    strcpy(g->hypervisor, "an_other-hypervisor+1.0!_______");
    s = snapshot_over(g, layer_new(5, 3, 5), NULL, e, HLSNAP_COUNT(e));
    s->generation = INT64_MAX;
    return plain(s);
}

/* Maps of each mode and source, at the first and the last address, behind a window that is as large as may be. */
#define GVA(megabytes) (0x7f0000000000ull + ((uint64_t)(megabytes) << 20))
#define PAGE_OF(megabytes) (TOP + 512 + (megabytes) * 256)
#define WORD "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
static hlsnap_snapshot *maps(void) {
    static const hlsnap__map rows[] = {
        {"_", "", HLSNAP_MAP_READ, false, false, GVA(0), 1, NULL},
        {"f23456789.123456789:123456789$123456789-123456789_12345678901_z", WORD, HLSNAP_MAP_PRIVATE, false, false, GVA(2), (47ull << 30) + 1, NULL},
        {"shared", "", HLSNAP_MAP_SHARED, false, false, GVA(48132), P, NULL},
        {"captured", WORD, HLSNAP_MAP_READ, true, false, GVA(48134), 4 * P + 1, NULL},
        {"captured_private", "", HLSNAP_MAP_PRIVATE, true, false, GVA(48136), 9 * P, NULL},
        {"optional", WORD, HLSNAP_MAP_READ, false, true, GVA(48140), 3ull << 30, NULL},
        {"optional_private", "", HLSNAP_MAP_PRIVATE, false, true, GVA(51216), P - 1, NULL},
        {"optional_shared", WORD, HLSNAP_MAP_SHARED, false, true, GVA(65534), 2 << 20, NULL}};
    static const hlsnap__extent e[] = {
        {0, 4, 0, 0}, {4, 2, 0, 4}, {16, 2, 0, 6},                                    /* the window */
        {PAGE_OF(2), 1, 0, 8}, {PAGE_OF(2) + 47 * 262144, 1, 0, 9},                   /* first a page of zeros, which is one */
        {PAGE_OF(48134), 5, 1, 0},                                                    /* a layer of its own */
        {PAGE_OF(48136), 2, 2, 0}, {PAGE_OF(48136) + 2, 1, 0, 10}, {PAGE_OF(48136) + 4, 5, 2, 4}, /* changed; the next one became zero */
        {PAGE_OF(51216), 1, 0, 11}};
    hlsnap__guest *g = guest_new();
    hlsnap__layer *layers[] = {layer_new(12, 5, 8), layer_new(5, 6, 3), layer_new(9, 7, 9)};
    hlsnap_snapshot *s = NULL;
    uint32_t i;
    for (i = 0; i < g->layout.num_regions; i++) g->layout.regions[i].gva += HIGH - BASE;
    g->entry += HIGH - BASE;
    g->module += HIGH - BASE;
    g->layout.base = HIGH;
    g->layout.pages = TOP;
    CHECK_EQ(hlsnap__snapshot_create(g, 7, layers, 3, e, HLSNAP_COUNT(e), &s, &err), HLSNAP_OK);
    CHECK_EQ(hlsnap__snapshot_maps(s, rows, HLSNAP_COUNT(rows), &err), HLSNAP_OK);
    hlsnap__guest_release(g);
    for (i = 0; i < 3; i++) hlsnap__layer_release(layers[i]);
    return plain(s);
}

static const struct { const char *tag; hlsnap_snapshot *(*make)(void); } made[] = {{"small", small}, {"extreme", extreme}, {"maps", maps}};

static hlsnap_snapshot *load(const char *tag, hlsnap_oci_digest *digest) {
    hlsnap_snapshot *s = NULL;
    if (!CHECK_EQ(hlsnap_oci_load(golden, tag, NULL, &s, digest, &err), HLSNAP_OK)) printf("# %s\n", err.msg);
    return s;
}

static bool of_this_release(const char *key, const char *value, void *user) {
    if (strcmp(key, "dev.hlsnap.library") == 0) *(bool *)user = strcmp(value, HLSNAP_VERSION_STRING) == 0;
    return true;
}

#if defined(__x86_64__)
static void loads(void) {
    size_t i;
    for (i = 0; i < HLSNAP_COUNT(made); i++) {
        hlsnap_snapshot *s = made[i].make(), *t = load(made[i].tag, NULL);
        if (t) check_same(s, t);
        hlsnap_snapshot_release(s);
        hlsnap_snapshot_release(t);
    }
}

/* The writer of this release gives the bytes that it always gave. */
static void writes(void) {
    char dir[] = "/tmp/hlsnap-golden-XXXXXX", command[100];
    bool same = false;
    size_t i;
    if (!CHECK(mkdtemp(dir) != NULL)) return;
    for (i = 0; i < HLSNAP_COUNT(made); i++) {
        hlsnap_snapshot *s = made[i].make(), *t;
        hlsnap_oci_digest was = HLSNAP_ZERO, is = HLSNAP_ZERO;
        CHECK_EQ(hlsnap_oci_annotations(golden, made[i].tag, of_this_release, &same, &err), HLSNAP_OK);
        CHECK_EQ(hlsnap_oci_save(dir, made[i].tag, s, NULL, &is, &err), HLSNAP_OK);
        hlsnap_snapshot_release(load(made[i].tag, &was));
        CHECK_EQ(hlsnap_oci_load(dir, made[i].tag, NULL, &t, NULL, &err), HLSNAP_OK);
        check_same(s, t);
        if (same) CHECK_STR(is.text, was.text);
        hlsnap_snapshot_release(s);
        hlsnap_snapshot_release(t);
    }
    snprintf(command, sizeof(command), "rm -rf %s", dir);
    CHECK_EQ(system(command), 0);
    if (!same) SKIP("the goldens are another release's");
}

static void is_sound(void) {
    hlsnap_oci_info base, delta, mapped;
    CHECK_EQ(hlsnap_oci_fsck(golden, false, &err), HLSNAP_OK);
    CHECK_EQ(hlsnap_oci_get_info(golden, "guest", &base, &err), HLSNAP_OK);
    CHECK_EQ(hlsnap_oci_get_info(golden, "delta", &delta, &err), HLSNAP_OK);
    CHECK_EQ(base.layers, 1);
    CHECK_EQ(delta.layers, 2);
    CHECK_EQ(hlsnap_oci_get_info(golden, "maps", &mapped, &err), HLSNAP_OK);
    CHECK_EQ(mapped.layers, 3); /* two of them of captured maps */
    CHECK(base.own_bytes < base.bytes / 4); /* the delta stands on its blobs */
}

/* ---- goldens that are guests: built and run long ago, and they still answer ---- */

static hlsnap_result host(hlsnap_call *call, void *user) {
    const hlsnap_value text = hlsnap_call_arg(call, 7), bytes = hlsnap_call_arg(call, 8);
    char out[200];
    const int n = snprintf(out, sizeof(out), "%d %d %u %lld %llu %g %g %s ", hlsnap_call_arg(call, 0).as.b, hlsnap_call_arg(call, 1).as.i32,
                           hlsnap_call_arg(call, 2).as.u32, (long long)hlsnap_call_arg(call, 3).as.i64,
                           (unsigned long long)hlsnap_call_arg(call, 4).as.u64, (double)hlsnap_call_arg(call, 5).as.f32,
                           hlsnap_call_arg(call, 6).as.f64, text.str);
    memcpy(out + n, bytes.bytes, bytes.size);
    ++*(int *)user;
    return hlsnap_call_return(call, hlsnap_bytes(out, (size_t)n + bytes.size));
}

static int host_calls;
static hlsnap_sandbox_desc host_desc(void) {
    static const hlsnap_function functions[] = {{"host", "bytes(bool,i32,u32,i64,u64,f32,f64,str,bytes)", host, &host_calls}};
    hlsnap_sandbox_desc desc = HLSNAP_ZERO;
    desc.hypervisor = hlsnap_kvm();
    desc.functions = functions;
    desc.num_functions = 1;
    return desc;
}

static uint32_t next(hlsnap_sandbox *sb) {
    hlsnap_value out = HLSNAP_ZERO;
    CHECK_EQ(hlsnap_sandbox_call(sb, "next", HLSNAP_NO_ARGS, &out, &err), HLSNAP_OK);
    return out.as.u32;
}

static void check_types(hlsnap_sandbox *sb) {
    static const char *const names[] = {"same_bool", "same_i32", "same_u32", "same_i64", "same_u64",
                                        "same_f32",  "same_f64", "same_str", "same_bytes"};
    static const char want[] = "1 -2147483648 4294967295 -9223372036854775808 18446744073709551615 3.40282e+38 -0 t\xc3\xa4xt \0\xff";
    hlsnap_value args[9], out = HLSNAP_ZERO;
    size_t i;
    args[0] = hlsnap_bool(true);
    args[1] = hlsnap_i32(INT32_MIN);
    args[2] = hlsnap_u32(UINT32_MAX);
    args[3] = hlsnap_i64(INT64_MIN);
    args[4] = hlsnap_u64(UINT64_MAX);
    args[5] = hlsnap_f32(3.4028235e38f);
    args[6] = hlsnap_f64(-0.0);
    args[7] = hlsnap_str("t\xc3\xa4xt");
    args[8] = hlsnap_bytes("\0\xff", 2);
    for (i = 0; i < HLSNAP_COUNT(names); i++) {
        CHECK_EQ(hlsnap_sandbox_call(sb, names[i], &args[i], 1, &out, &err), HLSNAP_OK);
        CHECK_EQ(out.type, args[i].type);
        CHECK_EQ(out.size, args[i].size);
        if (i < 7) CHECK_EQ(memcmp(&out.as, &args[i].as, sizeof(out.as)), 0);
        else if (i == 7) CHECK_STR(out.str, args[i].str);
        else CHECK(out.size == 2 && memcmp(out.bytes, args[i].bytes, 2) == 0);
    }
    CHECK_EQ(hlsnap_sandbox_call(sb, "relay", args, 9, &out, &err), HLSNAP_OK);
    CHECK(out.size == sizeof(want) - 1 && memcmp(out.bytes, want, out.size) == 0);
}

static void answers(void) {
    static const struct { const char *tag; uint32_t first; } rows[] = {{"guest", 42}, {"delta", 48}};
    const hlsnap_sandbox_desc desc = host_desc();
    size_t i;
    if (hlsnap_kvm_probe(&err)) SKIP("no KVM");
    for (i = 0; i < HLSNAP_COUNT(rows); i++) {
        hlsnap_snapshot *s = load(rows[i].tag, NULL);
        hlsnap_sandbox *sb = NULL;
        if (!s || !CHECK_EQ(hlsnap_sandbox_create_from(s, &desc, &sb, &err), HLSNAP_OK)) continue;
        host_calls = 0;
        CHECK_EQ(next(sb), rows[i].first);
        CHECK_EQ(next(sb), rows[i].first + 2);
        check_types(sb);
        CHECK_EQ(host_calls, 1);
        CHECK_EQ(hlsnap_sandbox_restore(sb, s, &err), HLSNAP_OK);
        CHECK_EQ(next(sb), rows[i].first);
        hlsnap_sandbox_destroy(sb);
        hlsnap_snapshot_release(s);
    }
}

/* ---- making them ---- */

static bool save(const char *tag, hlsnap_snapshot *s) {
    hlsnap_oci_desc desc = HLSNAP_ZERO;
    desc.created = -1; /* made anew they are the same to the byte */
    return CHECK_EQ(hlsnap_oci_save(golden, tag, plain(s), &desc, NULL, &err), HLSNAP_OK);
}

static void write_all(void) {
    const hlsnap_sandbox_desc desc = host_desc();
    const char *guests = getenv("GUEST_DIR");
    hlsnap_guest_desc guest = HLSNAP_ZERO;
    hlsnap_sandbox *sb = NULL;
    hlsnap_snapshot *s = NULL;
    char path[512];
    size_t i;
    HLSNAP__STATIC_ASSERT(frozen, HLSNAP_VERSION_MAJOR == 0); /* after that, goldens are added, never replaced */
    for (i = 0; i < HLSNAP_COUNT(made); i++) {
        s = made[i].make();
        save(made[i].tag, s);
        hlsnap_snapshot_release(s);
    }
    snprintf(path, sizeof(path), "%s/guest_golden.elf", guests ? guests : ".");
    guest.path = path;
    guest.heap_size = 64 * P;
    CHECK_EQ(hlsnap_sandbox_create(&guest, &desc, &sb, &err), HLSNAP_OK);
    CHECK_EQ(hlsnap_sandbox_snapshot(sb, &s, &err), HLSNAP_OK);
    save("guest", s);
    hlsnap_snapshot_release(s);
    for (i = 0; i < 3; i++) next(sb);
    CHECK_EQ(hlsnap_sandbox_snapshot(sb, &s, &err), HLSNAP_OK);
    save("delta", s);
    hlsnap_snapshot_release(s);
    hlsnap_sandbox_destroy(sb);
    if (test_bad) printf("# %s\n", err.msg);
}

static void are_made_anew(void) {
    const char *checked_in = golden;
    char dir[] = "/tmp/hlsnap-golden-XXXXXX", command[100];
    if (hlsnap_kvm_probe(&err)) SKIP("no KVM");
    if (!CHECK(mkdtemp(dir) != NULL)) return;
    golden = dir;
    write_all();
    is_sound();
    loads();
    answers();
    golden = checked_in;
    snprintf(command, sizeof(command), "rm -rf %s", dir);
    CHECK_EQ(system(command), 0);
}
#else
static void loads(void) { /* refused, and by name */
    static const char *const tags[] = {"small", "extreme", "maps", "guest", "delta"};
    hlsnap_snapshot *s = NULL;
    size_t i;
    for (i = 0; i < HLSNAP_COUNT(tags); i++) CHECK_EQ(hlsnap_oci_load(golden, tags[i], NULL, &s, NULL, &err), HLSNAP_ERR_ARCH);
    (void)made, (void)load, (void)of_this_release;
}
#endif

int main(int argc, char **argv) {
    static const test_row tests[] = {TEST(words), TEST(loads),
#if defined(__x86_64__)
                                     TEST(writes), TEST(is_sound), TEST(answers), TEST(are_made_anew)
#endif
    };
    golden = getenv("GOLDEN_DIR");
    if (!golden) golden = "../../tests/golden";
#if defined(__x86_64__)
    if (argc == 3 && strcmp(argv[1], "write") == 0) {
        golden = argv[2];
        write_all();
        return test_bad != 0;
    }
#endif
    return TEST_MAIN(tests, argc, argv);
}

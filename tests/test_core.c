/* test_core.c - values, contracts, states, calls, hostile guests, snapshots and resets, all on the fake hypervisor.
   cc:  cc -std=gnu11 -I.. test_core.c -o test_core
   run: ./test_core [name]      QUICK=1 does a tenth of the random operations, LONG=1 ten times as many */
#define HLSNAP_IMPLEMENTATION
#include "guest_fake.h"
#include "test.h"

/* Every test leaves as many blocks, descriptors, mappings and shells as it found, and no promise to the fake broken. */
static balance before;
static void enter(void) {
    fake_reset();
    before = balance_now();
}
static void leave(void) {
    const balance now = balance_now();
    CHECK_EQ(now.live, before.live);
    CHECK_EQ(now.maps, before.maps);
    CHECK_EQ(now.shells, before.shells);
    CHECK_EQ(now.fds, before.fds);
    CHECK_EQ(now.memfds, before.memfds);
    CHECK_EQ(hv.bad, 0);
}

static long operations(long n) {
    const char *more = getenv("LONG");
    return getenv("QUICK") ? n / 10 : more && more[0] == '1' ? n * 10 : n;
}

static uint64_t random_state = 0x9e3779b97f4a7c15ull;
static uint32_t random_below(uint32_t n) {
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return (uint32_t)(random_state >> 11) % n;
}

/* ---- values ---- */

static hlsnap_value f32_bits(uint32_t bits) {
    float f;
    memcpy(&f, &bits, sizeof(f));
    return hlsnap_f32(f);
}
static hlsnap_value f64_bits(uint64_t bits) {
    double d;
    memcpy(&d, &bits, sizeof(d));
    return hlsnap_f64(d);
}

static bool same_value(const hlsnap_value *a, const hlsnap_value *b) {
    if (a->type != b->type || a->size != b->size || hlsnap__value_bits(a) != hlsnap__value_bits(b)) return false;
    if (a->type == HLSNAP_STR) return a->str && !a->bytes && memcmp(a->str, b->str, a->size + 1) == 0;
    if (a->type == HLSNAP_BYTES) return a->bytes && !a->str && memcmp(a->bytes, b->bytes, a->size) == 0;
    return !a->str && !a->bytes;
}

/* Every type through an export, and through an import and back. */
static void values_both_ways(void) {
    hlsnap_sandbox *sb = start(GUEST_ALL, 16);
    const struct { const char *name; hlsnap_value v; } rows[] = {
        {"e_bool", hlsnap_bool(false)}, {"e_bool", hlsnap_bool(true)},
        {"e_i32", hlsnap_i32(0)}, {"e_i32", hlsnap_i32(INT32_MIN)}, {"e_i32", hlsnap_i32(INT32_MAX)}, {"e_i32", hlsnap_i32(-1)},
        {"e_u32", hlsnap_u32(0)}, {"e_u32", hlsnap_u32(UINT32_MAX)},
        {"e_i64", hlsnap_i64(INT64_MIN)}, {"e_i64", hlsnap_i64(INT64_MAX)}, {"e_i64", hlsnap_i64(-1)},
        {"e_u64", hlsnap_u64(UINT64_MAX)}, {"e_u64", hlsnap_u64(1)},
        {"e_f32", hlsnap_f32(-0.0f)}, {"e_f32", f32_bits(0x7f800000)}, {"e_f32", f32_bits(0x7fc12345)},
        {"e_f32", f32_bits(0xff812345)}, {"e_f32", f32_bits(1)}, {"e_f64", hlsnap_f64(-0.0)},
        {"e_f64", f64_bits(0x7ff0000000000000ull)}, {"e_f64", f64_bits(0xfff8deadbeef0001ull)},
        {"e_f64", f64_bits(0x7ff4000000000001ull)}, {"e_f64", f64_bits(1)},
        {"e_str", hlsnap_str("")}, {"e_str", hlsnap_str(NULL)}, {"e_str", hlsnap_str("1234567")}, {"e_str", hlsnap_str("12345678")},
        {"e_str", hlsnap_str("\xc3\xa9\xff\x01 any byte but NUL")}, {"r_str", hlsnap_str("")}, {"r_str", hlsnap_str("there and back")},
        {"e_bytes", hlsnap_bytes(NULL, 0)}, {"e_bytes", hlsnap_bytes("\0\1\2", 3)}, {"r_bytes", hlsnap_bytes("", 0)},
        {"r_bytes", hlsnap_bytes("12345678\0", 9)}};
    hlsnap_value out;
    size_t i;
    if (!CHECK(sb != NULL)) return;
    for (i = 0; i < HLSNAP_COUNT(rows); i++) {
        CHECK_EQ(hlsnap_sandbox_call(sb, rows[i].name, &rows[i].v, 1, &out, &err), HLSNAP_OK);
        if (!CHECK(same_value(&out, &rows[i].v))) printf("# row %zu, %s\n", i, rows[i].name);
    }
    CHECK_EQ(hlsnap_sandbox_call(sb, "nop", HLSNAP_NO_ARGS, &out, &err), HLSNAP_OK);
    CHECK_EQ(out.type, HLSNAP_VOID);
    CHECK_EQ(hlsnap_sandbox_call(sb, "r_i32", HLSNAP_ARGS(hlsnap_i32(21)), &out, &err), HLSNAP_OK);
    CHECK_EQ(out.as.i32, 42);
    hlsnap_sandbox_destroy(sb);
}

static void arguments(void) {
    hlsnap_sandbox *sb = start(GUEST_ALL, 16);
    hlsnap_value v[33], out, bad = hlsnap_str("a");
    int64_t sum = 0;
    uint32_t i;
    for (i = 0; i < 33; i++) v[i] = hlsnap_i64(i + 1);
    for (i = 0; i < 32; i++) sum = sum * 3 + i + 1;
    CHECK_EQ(hlsnap_sandbox_call(sb, "sum", v, 32, &out, &err), HLSNAP_OK);
    CHECK_EQ(out.as.i64, sum);
    CHECK_EQ(hlsnap_sandbox_call(sb, "r_sum", v, 32, &out, &err), HLSNAP_OK);
    CHECK_EQ(out.as.i64, sum);
    CHECK_EQ(hlsnap_sandbox_call(sb, "sum", v, 33, NULL, &err), HLSNAP_ERR_SIGNATURE);
    CHECK_EQ(hlsnap_sandbox_call(sb, "e_i32", NULL, 1, NULL, &err), HLSNAP_ERR_ARG);
    CHECK_EQ(hlsnap_sandbox_call(sb, "sum", v, 31, NULL, &err), HLSNAP_ERR_SIGNATURE);
    CHECK_EQ(hlsnap_sandbox_call(sb, "sum", NULL, 0, NULL, &err), HLSNAP_ERR_SIGNATURE);
    CHECK_EQ(hlsnap_sandbox_call(sb, "e_i32", v, 1, NULL, &err), HLSNAP_ERR_SIGNATURE);
    CHECK_EQ(hlsnap_sandbox_call(sb, "none", v, 1, NULL, &err), HLSNAP_ERR_NOT_FOUND);
    CHECK_EQ(hlsnap_sandbox_call(sb, "", v, 1, NULL, &err), HLSNAP_ERR_NOT_FOUND);
    CHECK_EQ(hlsnap_sandbox_call(sb, NULL, v, 1, NULL, &err), HLSNAP_ERR_ARG);
    bad.str = "a\0b";
    bad.size = 3;
    CHECK_EQ(hlsnap_sandbox_call(sb, "e_str", &bad, 1, NULL, &err), HLSNAP_ERR_SIGNATURE);
    bad.str = NULL;
    CHECK_EQ(hlsnap_sandbox_call(sb, "e_str", &bad, 1, NULL, &err), HLSNAP_ERR_SIGNATURE);
    bad = hlsnap_bytes(NULL, 0);
    bad.bytes = NULL;
    bad.size = 1;
    CHECK_EQ(hlsnap_sandbox_call(sb, "e_bytes", &bad, 1, NULL, &err), HLSNAP_ERR_SIGNATURE);
    bad.bytes = (const uint8_t *)"";
    bad.size = SIZE_MAX;
    CHECK_EQ(hlsnap_sandbox_call(sb, "e_bytes", &bad, 1, NULL, &err), HLSNAP_ERR_LIMIT);
    bad.type = (hlsnap_type)77;
    CHECK_EQ(hlsnap_sandbox_call(sb, "e_bytes", &bad, 1, NULL, &err), HLSNAP_ERR_SIGNATURE);
    CHECK_EQ(hlsnap_sandbox_get_state(sb), HLSNAP_READY);
    hlsnap_sandbox_destroy(sb);
}

/* The largest message each way, and one byte more. */
static void message_limits(void) {
    static uint8_t data[65536];
    hlsnap_sandbox *sb = start(GUEST_ALL, 16);
    const uint32_t half = hlsnap__half(sb), head = sizeof(hlsnap_abi_message) + sizeof(hlsnap_abi_value);
    const uint32_t in = half - HLSNAP__RESERVE_IN - head, out_most = half - HLSNAP__RESERVE_OUT - head;
    hlsnap_value out;
    uint32_t i;
    for (i = 0; i < sizeof(data); i++) data[i] = (uint8_t)(i * 31);
    CHECK_EQ(hlsnap_sandbox_call(sb, "r_bytes", HLSNAP_ARGS(hlsnap_bytes(data, out_most)), &out, &err), HLSNAP_ERR_LIMIT);
    CHECK_EQ(hlsnap_sandbox_call(sb, "e_bytes", HLSNAP_ARGS(hlsnap_bytes(data, in)), &out, &err), HLSNAP_ERR_LIMIT);
    CHECK_EQ(hlsnap_sandbox_call(sb, "e_bytes", HLSNAP_ARGS(hlsnap_bytes(data, in + 1)), &out, &err), HLSNAP_ERR_LIMIT);
    CHECK_EQ(hlsnap_sandbox_call(sb, "big", HLSNAP_ARGS(hlsnap_u32(out_most)), &out, &err), HLSNAP_OK);
    CHECK(out.size == out_most && memcmp(out.bytes, data, out_most) == 0);
    CHECK_EQ(hlsnap_sandbox_call(sb, "big", HLSNAP_ARGS(hlsnap_u32(out_most + 1)), &out, &err), HLSNAP_ERR_LIMIT);
    CHECK_EQ(hlsnap_sandbox_call(sb, "fmt_big", HLSNAP_ARGS(hlsnap_i32((int32_t)out_most - 1)), &out, &err), HLSNAP_OK);
    CHECK_EQ(out.size, out_most - 1);
    CHECK_EQ(hlsnap_sandbox_call(sb, "fmt_big", HLSNAP_ARGS(hlsnap_i32((int32_t)out_most)), &out, &err), HLSNAP_ERR_LIMIT);
    CHECK_EQ(hlsnap_sandbox_get_state(sb), HLSNAP_READY);
    hlsnap_sandbox_destroy(sb);
}

/* Built in place: whole, in part, as nothing; what does not fit, was not reserved, or is none of its type. */
static void reserved_results(void) {
    static const uint32_t sizes[] = {0, 1, 7, 8, 9, 100, 4096, 30000};
    hlsnap_sandbox *sb = start(GUEST_ALL, 16);
    const uint32_t head = sizeof(hlsnap_abi_message) + sizeof(hlsnap_abi_value), most = hlsnap__half(sb) - HLSNAP__RESERVE_OUT - head;
    const hlsnap_result S = HLSNAP_ERR_SIGNATURE, L = HLSNAP_ERR_LIMIT;
    hlsnap_value out;
    size_t i, k;
#define RESERVE(name, n, used, how) \
    hlsnap_sandbox_call(sb, name, HLSNAP_ARGS(hlsnap_u32(n), hlsnap_u32(used), hlsnap_u32(how)), &out, &err)
    for (i = 0; i < HLSNAP_COUNT(sizes); i++) {
        for (k = 0; k < 4; k++) {
            const uint32_t used = k & 1 ? sizes[i] / 2 : sizes[i];
            CHECK_EQ(RESERVE(k & 2 ? "reserve_str" : "reserve", sizes[i], used, i & 1 ? 4 : 0), HLSNAP_OK);
            CHECK(out.type == (k & 2 ? HLSNAP_STR : HLSNAP_BYTES) && out.size == used);
            CHECK(!used || (out.bytes ? out.bytes[used - 1] : (uint8_t)out.str[used - 1]) == 'a' + (used - 1) % 26);
            if (k & 2) CHECK_EQ(strlen(out.str), used);
        }
        CHECK_EQ(RESERVE("reserve", sizes[i], sizes[i] + 1, 0), L);
    }
    CHECK_EQ(RESERVE("reserve", most, most, 0), HLSNAP_OK);
    CHECK_EQ(out.size, most);
    CHECK_EQ(RESERVE("reserve", most + 1, 1, 0), L);
    CHECK(strstr(err.msg, "its result takes ") != NULL);
    CHECK_EQ(RESERVE("reserve_str", most - 1, most - 1, 0), HLSNAP_OK);
    CHECK_EQ(RESERVE("reserve_str", most, 1, 0), L);
    CHECK_EQ(RESERVE("reserve", UINT32_MAX, 1, 0), L);
    CHECK_EQ(RESERVE("reserve_str", 10, 10, 1), S); /* a NUL inside */
    CHECK_EQ(RESERVE("reserve_str", 10, 5, 1), HLSNAP_OK); /* but behind what is returned */
    CHECK_EQ(out.size, 5);
    CHECK_EQ(RESERVE("reserve", 10, 10, 1), HLSNAP_OK);
    CHECK_EQ(RESERVE("reserve_str", 10, 10, 2), HLSNAP_OK);
    CHECK_STR(out.str, "another");
    CHECK_EQ(RESERVE("reserve", 10, 10, 3), S);
    CHECK_EQ(RESERVE("reserve", 10, 10, 5), HLSNAP_OK); /* too much, then less */
    CHECK(out.size == 10 && out.bytes[9] == 'j');
    CHECK_EQ(RESERVE("reserve", most + 1, 1, 5), L);
    for (i = 7; i < 10; i++) { /* the last result counts, in its own way, too */
        CHECK_EQ(RESERVE(i == 8 ? "reserve_str" : "reserve", 10, 10, (uint32_t)i), HLSNAP_OK);
        CHECK(out.size == 3 && !memcmp(i == 8 ? (const void *)out.str : (const void *)out.bytes, "abc", 3));
    }
    CHECK_EQ(RESERVE("reserve", 10, 10, 6), HLSNAP_ERR_FUNCTION); /* a failure stays one */
    CHECK_EQ(err.user_code, 9);
#undef RESERVE
    CHECK_EQ(hlsnap_sandbox_call(sb, "unreserved", HLSNAP_NO_ARGS, &out, &err), S);
    CHECK_EQ(hlsnap_sandbox_call(sb, "reserve_i32", HLSNAP_NO_ARGS, &out, &err), S);
    CHECK_EQ(hlsnap_sandbox_get_state(sb), HLSNAP_READY);
    hlsnap_sandbox_destroy(sb);
}

/* ---- signatures and names ---- */

static void signatures(void) {
    static const struct { const char *text; bool ok; int num; } rows[] = {
        {"void()", true, 0}, {"i32(i32,str)", true, 2}, {"bytes(bytes)", true, 1},
        {"bool(bool,i32,u32,i64,u64,f32,f64,str,bytes)", true, 9},
        {"i64(" X32("i64") ")", true, 32}, {"bytes(" X32("bytes") ")", true, 32}, {"i64(" X32("i64") ",i64)", false, 0},
        {"", false, 0}, {"(", false, 0}, {"()", false, 0}, {"i32", false, 0}, {"i32(", false, 0}, {"i32)", false, 0},
        {"i32(i32", false, 0}, {"i32(i32,", false, 0}, {"i32(i32,)", false, 0}, {"i32(,i32)", false, 0}, {"i32(i32))", false, 0},
        {"i32()x", false, 0}, {"i32 ()", false, 0}, {"i32( )", false, 0}, {" i32()", false, 0}, {"i32(i32, str)", false, 0},
        {"i32(void)", false, 0}, {"void(void)", false, 0}, {"I32()", false, 0}, {"i33()", false, 0}, {"int()", false, 0},
        {"i32(i32str)", false, 0}, {"str(string)", false, 0}, {"i32(i32,,str)", false, 0}, {"i32((i32)", false, 0}, {"i32()()", false, 0}};
    size_t i, n;
    for (i = 0; i < HLSNAP_COUNT(rows); i++) {
        hlsnap__signature sig;
        char text[8 + HLSNAP_MAX_ARGS * 6];
        const bool ok = hlsnap__signature_parse(&sig, rows[i].text, strlen(rows[i].text));
        if (!CHECK_EQ(ok, rows[i].ok)) printf("# '%s'\n", rows[i].text);
        if (!ok) continue;
        CHECK_EQ(sig.num_args, rows[i].num);
        hlsnap__signature_format(&sig, text, sizeof(text));
        CHECK_STR(text, rows[i].text);
        for (n = 0; n < strlen(rows[i].text); n++) CHECK(!hlsnap__signature_parse(&sig, rows[i].text, n)); /* cut anywhere */
    }
}

static void names(void) {
    static const char longest[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_"; /* 63 */
    static const struct { const char *name; bool ok; } rows[] = {
        {"a", true}, {"_", true}, {"Z9", true}, {"a.b:c$d-e_f", true}, {longest, true}, {"", false}, {"9a", false}, {".a", false},
        {"-", false}, {"a b", false}, {"a\n", false}, {"\xc3\xa9", false}, {"a/b", false}, {"a@b", false}, {"a\\", false}};
    char more[65];
    size_t i;
    for (i = 0; i < HLSNAP_COUNT(rows); i++) CHECK_EQ(hlsnap__name_ok(rows[i].name, strlen(rows[i].name)), rows[i].ok);
    CHECK_EQ(sizeof(longest) - 1, HLSNAP_MAX_NAME);
    snprintf(more, sizeof(more), "%sx", longest);
    CHECK(!hlsnap__name_ok(more, 64));
    CHECK(!hlsnap__name_ok("a\0b", 3));
}

static void results(void) {
    CHECK_STR(hlsnap_result_name(HLSNAP_OK), "HLSNAP_OK");
    CHECK_STR(hlsnap_result_name(HLSNAP_ERR_CHANGED), "HLSNAP_ERR_CHANGED");
    CHECK_STR(hlsnap_result_name((hlsnap_result)9), "HLSNAP_ERR_?");
    CHECK_STR(hlsnap_result_name((hlsnap_result)-1), "HLSNAP_ERR_?");
    CHECK(hlsnap_result_text(HLSNAP_RESULT_FORCE32) && hlsnap_result_text(HLSNAP_ERR_FAULT)[0]);
    CHECK_EQ(hlsnap_version(), HLSNAP_VERSION);
    CHECK(HLSNAP_VERSION_AT_LEAST(0, 1, 0) && !HLSNAP_VERSION_AT_LEAST(99, 0, 0));
}

/* ---- descs ---- */

static void guest_descs(void) {
    static const hlsnap_module module = {NULL, 0, NULL, 0};
    hlsnap_snapshot *s;
    hlsnap_guest_desc rows[22];
    size_t i, n = 0;
    for (i = 0; i < HLSNAP_COUNT(rows); i++) rows[i] = fake_guest(GUEST_FEW, 16);
    rows[n++]._start_canary = 1;
    rows[n++]._end_canary = 1;
    rows[n++].data = NULL;
    rows[n++].path = "/dev/null";
    rows[n++].self = &module;
    rows[n++].heap_size = 1;
    rows[n++].heap_size = (16ull << 30) + 4096;
    rows[n++].heap_size = UINT64_MAX - 4095;
    rows[n++].stack_size = 4095;
    rows[n++].stack_size = (1u << 30) + 4096;
    rows[n++].mailbox_size = 4096;
    rows[n++].mailbox_size = 12287;
    rows[n++].mailbox_size = (256u << 20) + 4096;
    rows[n++].cpu = (hlsnap_cpu)5;
    rows[n++].cpu = (hlsnap_cpu)0x7ffffffe;
    for (i = 0; i < n; i++) {
        s = (hlsnap_snapshot *)(void *)&s;
        err.code = HLSNAP_OK;
        if (!CHECK_EQ(hlsnap_snapshot_from_guest(&rows[i], &s, &err), HLSNAP_ERR_ARG)) printf("# row %zu\n", i);
        CHECK(!s && err.code == HLSNAP_ERR_ARG && strlen(err.msg) > 0);
    }
    CHECK_EQ(hlsnap_snapshot_from_guest(NULL, &s, &err), HLSNAP_ERR_ARG);
    rows[n].path = rows[n].data = NULL;
    rows[n].path = "/nonexistent";
    CHECK_EQ(hlsnap_snapshot_from_guest(&rows[n], &s, &err), HLSNAP_ERR_OS);
    CHECK_EQ(err.os_errno, ENOENT);
    rows[n].path = "/";
    CHECK(hlsnap_snapshot_from_guest(&rows[n], &s, &err) != HLSNAP_OK && !s);
    rows[++n].data_size = 100;
    CHECK_EQ(hlsnap_snapshot_from_guest(&rows[n], &s, NULL), HLSNAP_ERR_ELF);
    rows[++n].mailbox_size = 8192;
    rows[n].stack_size = 4096;
    rows[n].heap_size = 4096;
    CHECK_EQ(hlsnap_snapshot_from_guest(&rows[n], &s, &err), HLSNAP_OK);
    hlsnap_snapshot_release(s);
}

static void sandbox_descs(void) {
    const hlsnap_guest_desc g = fake_guest(GUEST_FEW, 16);
    hlsnap_sandbox_desc rows[16];
    hlsnap_snapshot *s;
    hlsnap_sandbox *sb;
    size_t i, n = 0;
    for (i = 0; i < HLSNAP_COUNT(rows); i++) rows[i] = host_desc();
    rows[n++]._start_canary = 1;
    rows[n++]._end_canary = 1;
    rows[n++].hypervisor = NULL;
    rows[n++].log_level = -2;
    rows[n++].log_level = 5;
    rows[n++].cancel_signal = SIGUSR1;
    rows[n++].cancel_signal = SIGRTMAX + 1;
    rows[n++].cancel_signal = -1;
    rows[n++].functions = NULL;
    CHECK_EQ(hlsnap_snapshot_from_guest(&g, &s, &err), HLSNAP_OK);
    for (i = 0; i < n; i++) {
        if (!CHECK_EQ(hlsnap_sandbox_create(&g, &rows[i], &sb, &err), HLSNAP_ERR_ARG)) printf("# row %zu\n", i);
        CHECK_EQ(hlsnap_sandbox_create_from(s, &rows[i], &sb, NULL), HLSNAP_ERR_ARG);
        CHECK(!sb);
    }
    CHECK_EQ(hlsnap_sandbox_create(&g, NULL, &sb, &err), HLSNAP_ERR_ARG);
    CHECK_EQ(hlsnap_sandbox_create(NULL, &rows[n], &sb, &err), HLSNAP_ERR_ARG);
    CHECK_EQ(hlsnap_sandbox_create_from(NULL, &rows[n], &sb, &err), HLSNAP_ERR_ARG);
    rows[++n].cancel_signal = SIGRTMAX;
    rows[n].log_level = 4;
    CHECK_EQ(hlsnap_sandbox_create(&g, &rows[n], &sb, &err), HLSNAP_OK);
    hlsnap_sandbox_destroy(sb);
    hlsnap_sandbox_destroy(NULL);
    hlsnap_snapshot_release(s);
    hlsnap_snapshot_release(NULL);
    hlsnap_interrupt_release(NULL);
}

/* ---- contract ---- */

/* Host functions that are refused whatever the guest wants. */
static void host_function_lists(void) {
    static hlsnap_function many[HLSNAP_MAX_FUNCTIONS + 1];
    static char text[HLSNAP_MAX_FUNCTIONS + 1][8];
    const hlsnap_guest_desc g = fake_guest(GUEST_FEW, 16);
    const struct { hlsnap_function f[2]; hlsnap_result code; } rows[] = {
        {{{NULL, "void()", g_nop, NULL}, {"b", "void()", g_nop, NULL}}, HLSNAP_ERR_ARG},
        {{{"a", NULL, g_nop, NULL}, {"b", "void()", g_nop, NULL}}, HLSNAP_ERR_ARG},
        {{{"a", "void()", g_nop, NULL}, {"b", "void()", NULL, NULL}}, HLSNAP_ERR_ARG},
        {{{"a", "void()", g_nop, NULL}, {"b c", "void()", g_nop, NULL}}, HLSNAP_ERR_ARG},
        {{{"a", "void()", g_nop, NULL}, {"b", "void(", g_nop, NULL}}, HLSNAP_ERR_SIGNATURE},
        {{{"a", "i64(" X32("i64") ",i64)", g_nop, NULL}, {"b", "void()", g_nop, NULL}}, HLSNAP_ERR_SIGNATURE},
        {{{"a", "void()", g_nop, NULL}, {"a", "i32()", g_nop, NULL}}, HLSNAP_ERR_DUPLICATE},
        {{{"a", "void()", g_nop, NULL}, {"b", "void()", g_nop, NULL}}, HLSNAP_OK}};
    hlsnap_sandbox_desc d = host_desc();
    hlsnap_sandbox *sb, *other = start(GUEST_FEW, 16);
    size_t i;
    for (i = 0; i < HLSNAP_COUNT(rows); i++) {
        d.functions = rows[i].f;
        d.num_functions = 2;
        if (!CHECK_EQ(hlsnap_sandbox_create(&g, &d, &sb, &err), rows[i].code)) printf("# row %zu\n", i);
        hlsnap_sandbox_destroy(sb);
        CHECK_EQ(hlsnap_sandbox_bind(other, rows[i].f, 2, &err), rows[i].code);
        CHECK_EQ(call0(other, "nop"), HLSNAP_OK);
    }
    for (i = 0; i < HLSNAP_COUNT(many); i++) {
        snprintf(text[i], sizeof(text[i]), "f%zu", i);
        many[i] = rows[0].f[1];
        many[i].name = text[i];
    }
    CHECK_EQ(hlsnap_sandbox_bind(other, many, HLSNAP_MAX_FUNCTIONS, &err), HLSNAP_OK);
    CHECK_EQ(hlsnap_sandbox_bind(other, many, HLSNAP_MAX_FUNCTIONS + 1, &err), HLSNAP_ERR_LIMIT);
    CHECK_EQ(hlsnap_sandbox_bind(other, NULL, 1, &err), HLSNAP_ERR_ARG);
    CHECK_EQ(hlsnap_sandbox_bind(other, NULL, 0, &err), HLSNAP_OK);
    hlsnap_sandbox_destroy(other);
}

/* Imports must be there and match; more is fine. The same at create, create_from, bind and restore. */
static void contracts(void) {
    hlsnap_function less[HLSNAP_COUNT(host_functions)];
    const hlsnap_guest_desc g = fake_guest(GUEST_ALL, 16);
    hlsnap_sandbox_desc d = host_desc();
    hlsnap_sandbox *sb = start(GUEST_ALL, 16), *poor, *none;
    hlsnap_snapshot *s;
    uint32_t i;
    CHECK_EQ(hlsnap_sandbox_snapshot(sb, &s, &err), HLSNAP_OK);
    d.functions = NULL;
    d.num_functions = 0;
    { const hlsnap_guest_desc few = fake_guest(GUEST_FEW, 16);
      CHECK_EQ(hlsnap_sandbox_create(&few, &d, &poor, &err), HLSNAP_OK); }
    CHECK_EQ(hlsnap_sandbox_restore(poor, s, &err), HLSNAP_ERR_CONTRACT);
    CHECK_EQ(hlsnap_sandbox_get_state(poor), HLSNAP_READY); /* refused before anything changed */
    CHECK_EQ(call0(poor, "nop"), HLSNAP_OK);
    d.functions = less;
    d.num_functions = HLSNAP_COUNT(less) - 1;
    for (i = 1; i < HLSNAP_COUNT(less); i++) { /* without function i; then with another signature */
        memcpy(less, host_functions, sizeof(less));
        less[i] = host_functions[HLSNAP_COUNT(less) - 1];
        CHECK_EQ(hlsnap_sandbox_create(&g, &d, &none, &err), HLSNAP_ERR_CONTRACT);
        CHECK_EQ(hlsnap_sandbox_create_from(s, &d, &none, &err), HLSNAP_ERR_CONTRACT);
        CHECK_EQ(hlsnap_sandbox_bind(sb, less, HLSNAP_COUNT(less) - 1, &err), HLSNAP_ERR_CONTRACT);
        memcpy(less, host_functions, sizeof(less));
        less[i].signature = "u64(str,f32)";
        CHECK_EQ(hlsnap_sandbox_bind(sb, less, HLSNAP_COUNT(less), &err), HLSNAP_ERR_CONTRACT);
        CHECK(!none);
    }
    CHECK_EQ(hlsnap_sandbox_get_state(sb), HLSNAP_READY);
    CHECK_EQ(call0(sb, "hook"), HLSNAP_OK);
    CHECK_EQ(hlsnap_sandbox_bind(poor, host_functions, HLSNAP_COUNT(host_functions), &err), HLSNAP_OK);
    CHECK_EQ(hlsnap_sandbox_restore(poor, s, &err), HLSNAP_OK);
    CHECK_EQ(call0(poor, "hook"), HLSNAP_OK);
    hlsnap_sandbox_destroy(poor);
    hlsnap_sandbox_destroy(sb);
    hlsnap_snapshot_release(s);
}

/* The contract of a snapshot can be read; before init there is none. */
static void contract_listing(void) {
    const hlsnap_guest_desc g = fake_guest(GUEST_ALL, 16);
    hlsnap_sandbox *sb = start(GUEST_ALL, 16);
    hlsnap_snapshot *s, *pre;
    hlsnap_function f;
    uint32_t i;
    CHECK_EQ(hlsnap_snapshot_from_guest(&g, &pre, &err), HLSNAP_OK);
    CHECK_EQ(hlsnap_sandbox_snapshot(sb, &s, &err), HLSNAP_OK);
    CHECK(!hlsnap_snapshot_export(pre, 0, &f) && !hlsnap_snapshot_import(pre, 0, &f));
    for (i = 0; hlsnap_snapshot_export(s, i, &f); i++) {
        CHECK_STR(f.name, fake_exports[i].name);
        CHECK_STR(f.signature, fake_exports[i].signature);
    }
    CHECK_EQ(i, HLSNAP_COUNT(fake_exports));
    for (i = 0; hlsnap_snapshot_import(s, i, &f); i++) CHECK(strcmp(f.name, fake_imports[i].name) == 0 && !f.fn && !f.user);
    CHECK_EQ(i, NUM_IMPORTS);
    CHECK(!hlsnap_snapshot_import(s, SIZE_MAX, &f));
    hlsnap_sandbox_destroy(sb);
    hlsnap_snapshot_release(s);
    hlsnap_snapshot_release(pre);
}

static void handles(void) {
    const hlsnap_guest_desc g = fake_guest(GUEST_FEW, 64);
    const hlsnap_sandbox_desc d = host_desc();
    hlsnap_sandbox *a = start(GUEST_ALL, 16), *same = start(GUEST_ALL, 16), *from, *other;
    hlsnap_invocation one = HLSNAP_ZERO;
    hlsnap_export e;
    hlsnap_snapshot *s;
    hlsnap_value v = hlsnap_i32(4), out;
    CHECK_EQ(hlsnap_sandbox_snapshot(same, &s, &err), HLSNAP_OK);
    CHECK_EQ(hlsnap_sandbox_create_from(s, &d, &from, &err), HLSNAP_OK);
    CHECK_EQ(hlsnap_sandbox_create(&g, &d, &other, &err), HLSNAP_OK);
    CHECK_EQ(hlsnap_sandbox_find(a, "twice", "i32(i32)", &e, &err), HLSNAP_OK);
    CHECK_EQ(hlsnap_sandbox_find(a, "twice", NULL, &e, &err), HLSNAP_OK);
    CHECK_EQ(hlsnap_sandbox_find(a, "twice", "i32(u32)", &e, &err), HLSNAP_ERR_SIGNATURE);
    CHECK_EQ(hlsnap_sandbox_find(a, "twice", "i32(", &e, &err), HLSNAP_ERR_SIGNATURE);
    CHECK_EQ(hlsnap_sandbox_find(a, "thrice", "i32(i32)", &e, &err), HLSNAP_ERR_NOT_FOUND);
    CHECK_EQ(hlsnap_sandbox_find(a, NULL, NULL, &e, &err), HLSNAP_ERR_ARG);
    CHECK_EQ(hlsnap_sandbox_find(a, "twice", NULL, NULL, &err), HLSNAP_ERR_ARG);
    one.target = e;
    one.args = &v;
    one.num_args = 1;
    CHECK_EQ(hlsnap_sandbox_invoke(a, &one, 1, &out, NULL, &err), HLSNAP_OK);
    CHECK_EQ(hlsnap_sandbox_invoke(same, &one, 1, &out, NULL, &err), HLSNAP_OK);
    CHECK_EQ(hlsnap_sandbox_invoke(from, &one, 1, &out, NULL, &err), HLSNAP_OK);
    CHECK_EQ(out.as.i32, 8);
    CHECK_EQ(hlsnap_sandbox_invoke(other, &one, 1, &out, NULL, &err), HLSNAP_ERR_NOT_FOUND);
    one.target.id = e.id | 0xffff; /* beyond the exports */
    CHECK_EQ(hlsnap_sandbox_invoke(a, &one, 1, &out, NULL, &err), HLSNAP_ERR_NOT_FOUND);
    one.target.id = 0;
    CHECK_EQ(hlsnap_sandbox_invoke(a, &one, 1, &out, NULL, &err), HLSNAP_ERR_NOT_FOUND);
    CHECK_EQ(hlsnap_sandbox_restore(other, s, &err), HLSNAP_OK); /* now it is that guest */
    one.target = e;
    CHECK_EQ(hlsnap_sandbox_invoke(other, &one, 1, &out, NULL, &err), HLSNAP_OK);
    hlsnap_sandbox_destroy(a);
    hlsnap_sandbox_destroy(same);
    hlsnap_sandbox_destroy(from);
    hlsnap_sandbox_destroy(other);
    hlsnap_snapshot_release(s);
}

/* ---- states ---- */

static hlsnap_sandbox *self;   /* the sandbox that on_hook works on */
static hlsnap_snapshot *own;   /* a snapshot of it */

static hlsnap_result op_call(void) { return call0(self, "nop"); }
static hlsnap_result op_find(void) {
    hlsnap_export e;
    return hlsnap_sandbox_find(self, "nop", NULL, &e, &err);
}
static hlsnap_result op_invoke(void) { return hlsnap_sandbox_invoke(self, NULL, 0, NULL, NULL, &err); }
static hlsnap_result op_read(void) {
    uint8_t b[16];
    return hlsnap_sandbox_read(self, FAKE_DATA + 4090, b, sizeof(b), &err);
}
static hlsnap_result op_view(void) {
    const void *p;
    return hlsnap_sandbox_view(self, FAKE_DATA + 4090, 16, &p, &err);
}
static hlsnap_result op_write(void) { return hlsnap_sandbox_write(self, FAKE_TEXT + 100, "text", 4, &err); }
static hlsnap_result op_snapshot(void) {
    hlsnap_snapshot *s = own;
    const hlsnap_result r = hlsnap_sandbox_snapshot(self, &s, &err);
    CHECK_EQ(!s, r != HLSNAP_OK);
    hlsnap_snapshot_release(s);
    return r;
}
static hlsnap_result op_bind(void) {
    return hlsnap_sandbox_bind(self, host_functions, HLSNAP_COUNT(host_functions), &err);
}
static hlsnap_result op_restore(void) { return hlsnap_sandbox_restore(self, own, &err); }
static hlsnap_result op_restore_null(void) { return hlsnap_sandbox_restore(self, NULL, &err); }
static hlsnap_result op_cancel(void) { /* not found: no call to cancel */
    hlsnap_interrupt *h = hlsnap_sandbox_get_interrupt(self);
    const bool cancelled = hlsnap_interrupt_cancel(h);
    hlsnap_interrupt_release(h);
    return cancelled ? HLSNAP_OK : HLSNAP_ERR_NOT_FOUND;
}
static hlsnap_result op_retire(void) { /* what it did to the state */
    const hlsnap_state was = hlsnap_sandbox_get_state(self);
    hlsnap_stats stats;
    hlsnap_sandbox_get_stats(self, &stats);
    hlsnap_sandbox_retire(self);
    return hlsnap_sandbox_get_state(self) == was ? HLSNAP_OK : HLSNAP_ERR_STATE;
}

static const struct { const char *name; hlsnap_result (*run)(void); hlsnap_result ready, busy, log, poisoned; } state_ops[] = {
    {"call", op_call, HLSNAP_OK, HLSNAP_ERR_STATE, HLSNAP_ERR_STATE, HLSNAP_ERR_STATE},
    {"find", op_find, HLSNAP_OK, HLSNAP_ERR_STATE, HLSNAP_ERR_STATE, HLSNAP_ERR_STATE},
    {"invoke", op_invoke, HLSNAP_OK, HLSNAP_ERR_STATE, HLSNAP_ERR_STATE, HLSNAP_ERR_STATE},
    {"read", op_read, HLSNAP_OK, HLSNAP_OK, HLSNAP_ERR_STATE, HLSNAP_ERR_STATE},
    {"view", op_view, HLSNAP_OK, HLSNAP_OK, HLSNAP_ERR_STATE, HLSNAP_ERR_STATE},
    {"write", op_write, HLSNAP_OK, HLSNAP_OK, HLSNAP_ERR_STATE, HLSNAP_ERR_STATE},
    {"snapshot", op_snapshot, HLSNAP_OK, HLSNAP_ERR_STATE, HLSNAP_ERR_STATE, HLSNAP_ERR_STATE},
    {"bind", op_bind, HLSNAP_OK, HLSNAP_ERR_STATE, HLSNAP_ERR_STATE, HLSNAP_ERR_STATE},
    {"restore", op_restore, HLSNAP_OK, HLSNAP_ERR_STATE, HLSNAP_ERR_STATE, HLSNAP_OK},
    {"restore NULL", op_restore_null, HLSNAP_ERR_ARG, HLSNAP_ERR_STATE, HLSNAP_ERR_STATE, HLSNAP_ERR_ARG},
    {"retire", op_retire, HLSNAP_ERR_STATE, HLSNAP_OK, HLSNAP_OK, HLSNAP_OK},
    {"cancel", op_cancel, HLSNAP_ERR_NOT_FOUND, HLSNAP_OK, HLSNAP_OK, HLSNAP_ERR_NOT_FOUND}};

static hlsnap_result seen[HLSNAP_COUNT(state_ops)];
static uint32_t seen_from, seen_to;
static void see(void) {
    uint32_t i;
    CHECK_EQ(hlsnap_sandbox_get_state(self), HLSNAP_BUSY);
    for (i = seen_from; i < seen_to; i++) seen[i] = state_ops[i].run();
}
static void see_log(int level, const char *text, size_t size, void *user) { (void)level, (void)text, (void)size, (void)user, see(); }

/* One row of the table in every state; BUSY is seen from a host function and from the log function. */
static void state_row(uint32_t i) {
    const bool cancels = state_ops[i].run == op_cancel;
    seen_from = i;
    seen_to = i + 1;
    CHECK_EQ(op_restore(), HLSNAP_OK);
    if (!CHECK_EQ(state_ops[i].run(), state_ops[i].ready)) printf("# ready: %s\n", state_ops[i].name);
    CHECK_EQ(op_restore(), HLSNAP_OK);
    CHECK_EQ(call0(self, "hook"), cancels ? HLSNAP_ERR_CANCELLED : HLSNAP_OK);
    if (!CHECK_EQ(seen[i], state_ops[i].busy)) printf("# busy: %s\n", state_ops[i].name);
    CHECK_EQ(op_restore(), HLSNAP_OK);
    CHECK_EQ(hlsnap_sandbox_call(self, "log", HLSNAP_ARGS(hlsnap_i32(1), hlsnap_bytes("x", 1)), NULL, &err),
             cancels ? HLSNAP_ERR_CANCELLED : HLSNAP_OK);
    if (!CHECK_EQ(seen[i], state_ops[i].log)) printf("# log: %s\n", state_ops[i].name);
    hlsnap_sandbox_retire(self);
    CHECK_EQ(hlsnap_sandbox_get_state(self), HLSNAP_POISONED);
    if (!CHECK_EQ(state_ops[i].run(), state_ops[i].poisoned)) printf("# poisoned: %s\n", state_ops[i].name);
}

static void states(void) {
    const hlsnap_guest_desc g = fake_guest(GUEST_ALL, 16);
    hlsnap_sandbox_desc d = host_desc();
    uint32_t i;
    d.log = see_log;
    on_hook = see;
    CHECK_EQ(hlsnap_sandbox_create(&g, &d, &self, &err), HLSNAP_OK);
    CHECK_EQ(hlsnap_sandbox_snapshot(self, &own, &err), HLSNAP_OK);
    for (i = 0; i < HLSNAP_COUNT(state_ops); i++) state_row(i);
    hlsnap_sandbox_destroy(self); /* poisoned */
    hlsnap_snapshot_release(own);
}

static void destroy_self(void) {
    hlsnap_sandbox_destroy(self);
    hlsnap_sandbox_destroy(self); /* still there until the call returns */
}
static void destroy_log(int level, const char *text, size_t size, void *user) {
    (void)level, (void)text, (void)size, (void)user, destroy_self();
}

/* From inside a call: cancels it; the interrupt outlives the sandbox. */
static void destroy_inside(void) {
    const hlsnap_guest_desc g = fake_guest(GUEST_ALL, 16);
    hlsnap_sandbox_desc d = host_desc();
    hlsnap_interrupt *h;
    hlsnap_snapshot *pre;
    hlsnap_value out = hlsnap_i32(7);
    size_t done = 9;
    on_hook = destroy_self;
    self = start(GUEST_ALL, 16);
    h = hlsnap_sandbox_get_interrupt(self);
    CHECK_EQ(hlsnap_sandbox_call(self, "hook", HLSNAP_NO_ARGS, &out, &err), HLSNAP_ERR_CANCELLED);
    CHECK(!hlsnap_interrupt_cancel(h));
    hlsnap_interrupt_release(h);
    d.log = destroy_log;
    CHECK_EQ(hlsnap_sandbox_create(&g, &d, &self, &err), HLSNAP_OK);
    {
        hlsnap_value v[2] = {hlsnap_i32(1), hlsnap_bytes("x", 1)}, outs[2];
        hlsnap_invocation calls[2] = {{{0}, NULL, 0, 0, 0, NULL}, {{0}, v, 2, 0, 0, NULL}};
        CHECK_EQ(hlsnap_sandbox_find(self, "nop", NULL, &calls[0].target, &err), HLSNAP_OK);
        CHECK_EQ(hlsnap_sandbox_find(self, "log", NULL, &calls[1].target, &err), HLSNAP_OK);
        CHECK_EQ(hlsnap_sandbox_invoke(self, calls, 2, outs, &done, &err), HLSNAP_ERR_CANCELLED);
        CHECK_EQ(done, 0);
    }
    CHECK_EQ(hlsnap_snapshot_from_guest(&g, &pre, &err), HLSNAP_OK);
    hlsnap_snapshot_release(pre);
}

static hlsnap_sandbox *nested;
static hlsnap_result nested_result;
static void call_nested(void) {
    hlsnap_value out;
    void (*hook)(void) = on_hook;
    on_hook = NULL;
    nested_result = hlsnap_sandbox_call(nested, "r_i32", HLSNAP_ARGS(hlsnap_i32(10)), &out, &err);
    CHECK(nested_result != HLSNAP_OK || out.as.i32 == 20);
    CHECK_EQ(hlsnap_sandbox_get_state(self), HLSNAP_BUSY);
    on_hook = hook;
}

/* Another sandbox may be called from a host function, and what happens to it stays with it. */
static void calls_nest(void) {
    hlsnap_value out;
    self = start(GUEST_ALL, 16);
    nested = start(GUEST_ALL, 16);
    on_hook = call_nested;
    CHECK_EQ(call0(self, "hook"), HLSNAP_OK);
    CHECK_EQ(nested_result, HLSNAP_OK);
    hlsnap_sandbox_retire(nested);
    CHECK_EQ(call0(self, "hook"), HLSNAP_OK);
    CHECK_EQ(nested_result, HLSNAP_ERR_STATE);
    CHECK_EQ(hlsnap_sandbox_call(self, "twice", HLSNAP_ARGS(hlsnap_i32(1)), &out, &err), HLSNAP_OK);
    CHECK_EQ(call0(self, "outer"), HLSNAP_ERR_TIMEOUT);
    CHECK_EQ(hlsnap_sandbox_get_state(self), HLSNAP_POISONED);
    hlsnap_sandbox_destroy(self);
    hlsnap_sandbox_destroy(nested);
}

/* ---- NULL: each public function that takes an object or an out parameter ---- */

#define REFUSES(call) do { \
        memset(&err, 0, sizeof(err)); \
        if (!CHECK_EQ(call, HLSNAP_ERR_ARG) || !CHECK(strncmp(err.msg, #call, strcspn(#call, "(")) == 0 && strstr(err.msg, "is NULL"))) \
            printf("# '%s'\n", err.msg); \
    } while (0)

static void nulls_refused(hlsnap_sandbox *sb, hlsnap_snapshot *s) {
    const hlsnap_guest_desc g = fake_guest(GUEST_ALL, 16);
    const hlsnap_sandbox_desc d = host_desc();
    const hlsnap_invocation none = HLSNAP_ZERO;
    hlsnap_sandbox *out;
    hlsnap_snapshot *taken;
    hlsnap_export e;
    uint8_t b[8];
    size_t done = 9;
    REFUSES(hlsnap_sandbox_create(&g, &d, NULL, &err));
    REFUSES(hlsnap_sandbox_create_from(NULL, &d, &out, &err));
    REFUSES(hlsnap_sandbox_create_from(s, &d, NULL, &err));
    REFUSES(hlsnap_sandbox_call(NULL, "nop", HLSNAP_NO_ARGS, NULL, &err));
    CHECK(strstr(err.msg, "hlsnap_sandbox_call(nop): ") == err.msg);
    REFUSES(hlsnap_sandbox_call(NULL, NULL, HLSNAP_NO_ARGS, NULL, &err));
    REFUSES(hlsnap_sandbox_call(sb, NULL, HLSNAP_NO_ARGS, NULL, &err));
    REFUSES(hlsnap_sandbox_find(NULL, "nop", NULL, &e, &err));
    REFUSES(hlsnap_sandbox_find(sb, NULL, NULL, &e, &err));
    REFUSES(hlsnap_sandbox_find(sb, "nop", NULL, NULL, &err));
    REFUSES(hlsnap_sandbox_invoke(NULL, &none, 1, NULL, &done, &err));
    CHECK_EQ(done, 0);
    REFUSES(hlsnap_sandbox_invoke(NULL, &none, 1, NULL, NULL, &err));
    REFUSES(hlsnap_sandbox_invoke(sb, NULL, 1, NULL, NULL, &err));
    taken = s;
    REFUSES(hlsnap_sandbox_snapshot(NULL, &taken, &err));
    CHECK(!taken);
    REFUSES(hlsnap_sandbox_snapshot(NULL, NULL, &err));
    REFUSES(hlsnap_sandbox_snapshot(sb, NULL, &err));
    REFUSES(hlsnap_sandbox_restore(NULL, s, &err));
    REFUSES(hlsnap_sandbox_restore(sb, NULL, &err));
    REFUSES(hlsnap_sandbox_bind(NULL, host_functions, 1, &err));
    REFUSES(hlsnap_sandbox_read(NULL, 0, b, 1, &err));
    REFUSES(hlsnap_sandbox_read(sb, region_gva(sb, HLSNAP__HEAP), NULL, 1, &err));
    REFUSES(hlsnap_sandbox_write(NULL, 0, b, 1, &err));
    REFUSES(hlsnap_sandbox_write(sb, region_gva(sb, HLSNAP__HEAP), NULL, 1, &err));
    REFUSES(hlsnap_snapshot_from_guest(&g, NULL, &err));
    REFUSES(hlsnap_snapshot_read(NULL, 0, b, 1, &err));
    REFUSES(hlsnap_snapshot_read(s, region_gva(sb, HLSNAP__HEAP), NULL, 1, &err));
    CHECK_EQ(hlsnap_sandbox_call(NULL, "nop", HLSNAP_NO_ARGS, NULL, NULL), HLSNAP_ERR_ARG);
    CHECK_EQ(hlsnap_snapshot_read(s, region_gva(sb, HLSNAP__HEAP), NULL, 0, &err), HLSNAP_OK);
}

static void nulls(void) {
    static const hlsnap_stats no_stats;
    static const hlsnap_snapshot_info no_info;
    hlsnap_sandbox *sb = start(GUEST_ALL, 16);
    hlsnap_snapshot *s;
    hlsnap_snapshot_info info;
    hlsnap_stats stats;
    hlsnap_function f;
    hlsnap_region region;
    hlsnap_extent extent;
    CHECK_EQ(hlsnap_sandbox_snapshot(sb, &s, &err), HLSNAP_OK);
    nulls_refused(sb, s);
    CHECK_EQ(hlsnap_sandbox_get_state(NULL), HLSNAP_POISONED); /* what has no result does nothing, or says something harmless */
    hlsnap_sandbox_retire(NULL);
    hlsnap_sandbox_destroy(NULL);
    hlsnap_sandbox_get_stats(sb, NULL);
    memset(&stats, 1, sizeof(stats));
    hlsnap_sandbox_get_stats(NULL, &stats);
    CHECK(memcmp(&stats, &no_stats, sizeof(stats)) == 0);
    CHECK(!hlsnap_sandbox_get_interrupt(NULL) && !hlsnap_interrupt_cancel(NULL));
    hlsnap_interrupt_release(NULL);
    CHECK(!hlsnap_snapshot_retain(NULL));
    hlsnap_snapshot_release(NULL);
    hlsnap_snapshot_get_info(s, NULL);
    memset(&info, 1, sizeof(info));
    hlsnap_snapshot_get_info(NULL, &info);
    CHECK(memcmp(&info, &no_info, sizeof(info)) == 0);
    CHECK(!hlsnap_snapshot_import(NULL, 0, &f) && !hlsnap_snapshot_import(s, 0, NULL));
    CHECK(!hlsnap_snapshot_export(NULL, 0, &f) && !hlsnap_snapshot_export(s, 0, NULL));
    CHECK(!hlsnap_snapshot_region(NULL, 0, &region) && !hlsnap_snapshot_region(s, 0, NULL));
    CHECK(!hlsnap_snapshot_extent(NULL, 0, &extent) && !hlsnap_snapshot_extent(s, 0, NULL));
    CHECK(!hlsnap_snapshot_feature(NULL, 0));
    CHECK_EQ(call0(sb, "nop"), HLSNAP_OK); /* nothing of all this touched it */
    hlsnap_sandbox_retire(sb);
    CHECK_EQ(call0(sb, "nop"), HLSNAP_ERR_STATE);
    CHECK_STR(err.msg, "hlsnap_sandbox_call(nop): the sandbox is poisoned");
    CHECK_EQ(call0(sb, "\x1b[31m"), HLSNAP_ERR_STATE);
    CHECK_STR(err.msg, "hlsnap_sandbox_call(\\x1b[31m): the sandbox is poisoned");
    hlsnap_sandbox_destroy(sb);
    hlsnap_snapshot_release(s);
}

#include "test_core_calls.h"
#include "test_core_snapshots.h"
#include "test_core_prefault.h"

#define RUN(f) static void run_##f(void) { enter(); f(); leave(); }
#define TESTS(X) \
    X(values_both_ways) X(arguments) X(message_limits) X(reserved_results) X(signatures) X(names) X(results) X(guest_descs) X(sandbox_descs) \
    X(host_function_lists) X(contracts) X(contract_listing) X(handles) X(states) X(nulls) X(destroy_inside) X(calls_nest) \
    TESTS_CALLS(X) TESTS_SNAPSHOTS(X) TESTS_PREFAULT(X)
TESTS(RUN)
#define ROW(f) {#f, run_##f},
static const test_row tests[] = {TESTS(ROW)};
int main(int argc, char **argv) { return (test_words = err.msg, TEST_MAIN(tests, argc, argv)); }

/* test_core_calls.h - part of test_core.c: calls, batches, failures, host functions, hostile guests, faults, logs, limits. */

/* ---- batches ---- */

typedef struct batch { hlsnap_sandbox *sb; hlsnap_invocation *calls; hlsnap_value *args, *outs; size_t num; } batch;

/* num calls of one-argument exports, taken in turn from names[]; argument k of type i32 is k. */
static batch batch_create(hlsnap_sandbox *sb, const char *const *names, size_t num_names, size_t num) {
    batch b = {sb, (hlsnap_invocation *)calloc(num, sizeof(hlsnap_invocation)),
               (hlsnap_value *)calloc(num, sizeof(hlsnap_value)), (hlsnap_value *)calloc(num, sizeof(hlsnap_value)), num};
    size_t i;
    for (i = 0; i < num; i++) {
        CHECK_EQ(hlsnap_sandbox_find(sb, names[i % num_names], NULL, &b.calls[i].target, &err), HLSNAP_OK);
        b.args[i] = strstr(names[i % num_names], "str") ? hlsnap_str("a string result") : hlsnap_i32((int32_t)i);
        b.calls[i].args = &b.args[i];
        b.calls[i].num_args = 1;
    }
    return b;
}
static void batch_destroy(batch *b) {
    free(b->calls);
    free(b->args);
    free(b->outs);
}

/* The first n results are there and right. */
static void batch_check(const batch *b, size_t n) {
    size_t i;
    for (i = 0; i < n; i++) {
        const bool ok = b->args[i].type == HLSNAP_STR ? same_value(&b->outs[i], &b->args[i])
                                                      : b->outs[i].type == HLSNAP_I32 && b->outs[i].as.i32 == 2 * (int32_t)i;
        if (!CHECK(ok)) return;
    }
}

static void batches(void) {
    static const char *const scalars[] = {"twice"}, *const mixed[] = {"twice", "e_str", "twice", "r_str"};
    hlsnap_sandbox *sb = start(GUEST_ALL, 16);
    batch b = batch_create(sb, scalars, 1, 3000);
    hlsnap_stats stats;
    size_t done = 9;
    CHECK_EQ(hlsnap_sandbox_invoke(sb, b.calls, b.num, b.outs, &done, &err), HLSNAP_OK);
    CHECK_EQ(done, b.num);
    batch_check(&b, done);
    hlsnap_sandbox_get_stats(sb, &stats);
    CHECK(stats.exits > 2 && stats.exits < 10); /* init, then entries of ~1,000 calls each */
    CHECK_EQ(stats.calls, b.num);
    b.args[2999] = hlsnap_f32(0); /* all are checked before the first runs */
    CHECK_EQ(hlsnap_sandbox_invoke(sb, b.calls, b.num, b.outs, &done, &err), HLSNAP_ERR_SIGNATURE);
    CHECK_EQ(done, 0);
    CHECK_EQ(hlsnap_sandbox_invoke(sb, b.calls, 2, NULL, NULL, NULL), HLSNAP_OK);
    CHECK_EQ(hlsnap_sandbox_invoke(sb, b.calls, 0, b.outs, &done, &err), HLSNAP_OK);
    CHECK_EQ(hlsnap_sandbox_invoke(sb, NULL, 1, b.outs, &done, &err), HLSNAP_ERR_ARG);
    batch_destroy(&b);
    b = batch_create(sb, mixed, 4, 400);
    CHECK_EQ(hlsnap_sandbox_invoke(sb, b.calls, b.num, b.outs, &done, &err), HLSNAP_OK);
    CHECK_EQ(done, b.num);
    batch_check(&b, done); /* str results of all entries live together */
    batch_destroy(&b);
    hlsnap_sandbox_destroy(sb);
}

/* A failure in the middle: num_done says where, what was done before stands, and the sandbox stays ready or not. */
static void batches_fail(void) {
    static const struct { const char *name; hlsnap_value arg; hlsnap_result code; hlsnap_state state; } rows[] = {
        {"code", {HLSNAP_I32, NULL, NULL, 0, {.i32 = HLSNAP_ERR_MEMORY}}, HLSNAP_ERR_FUNCTION, HLSNAP_READY},
        {"refuse", {HLSNAP_I32, NULL, NULL, 0, {.i32 = HLSNAP_ERR_LIMIT}}, HLSNAP_ERR_LIMIT, HLSNAP_READY},
        {"beyond", {HLSNAP_I32, NULL, NULL, 0, {.i32 = 0}}, HLSNAP_ERR_SIGNATURE, HLSNAP_READY},
        {"peek", {HLSNAP_U64, NULL, NULL, 0, {.u64 = 0}}, HLSNAP_ERR_FAULT, HLSNAP_POISONED}};
    static const char *const names[] = {"twice", "e_str", "twice", "twice"};
    static const size_t places[] = {0, 1, 2, 57, 399};
    hlsnap_snapshot *s;
    hlsnap_sandbox *sb = start(GUEST_ALL, 16);
    size_t i, k, done;
    CHECK_EQ(hlsnap_sandbox_snapshot(sb, &s, &err), HLSNAP_OK);
    for (i = 0; i < HLSNAP_COUNT(rows); i++)
        for (k = 0; k < HLSNAP_COUNT(places); k++) {
            batch b = batch_create(sb, names, 4, 400);
            CHECK_EQ(hlsnap_sandbox_find(sb, rows[i].name, NULL, &b.calls[places[k]].target, &err), HLSNAP_OK);
            b.args[places[k]] = rows[i].arg;
            CHECK_EQ(hlsnap_sandbox_invoke(sb, b.calls, b.num, b.outs, &done, &err), rows[i].code);
            CHECK_EQ(err.code, rows[i].code);
            CHECK_EQ(hlsnap_sandbox_get_state(sb), rows[i].state);
            if (rows[i].state == HLSNAP_READY) CHECK_EQ(done, places[k]);
            else CHECK(done <= places[k]); /* a poisoned guest says no more than what was collected */
            batch_check(&b, done);
            batch_destroy(&b);
            CHECK_EQ(hlsnap_sandbox_restore(sb, s, &err), HLSNAP_OK);
        }
    hlsnap_sandbox_destroy(sb);
    hlsnap_snapshot_release(s);
}

/* ---- failures of functions, on both sides ---- */

static void failures(void) {
    static const struct { const char *name; int32_t arg; hlsnap_result code; int32_t user_code; } rows[] = {
        {"code", HLSNAP_OK, HLSNAP_ERR_SIGNATURE, 0},          /* OK without a result */
        {"code", HLSNAP_ERR_MEMORY, HLSNAP_ERR_FUNCTION, 0},   /* any other code fails the call */
        {"code", HLSNAP_ERR_FAULT, HLSNAP_ERR_FUNCTION, 0},    /* ... and claims nothing */
        {"code", HLSNAP_ERR_FUNCTION, HLSNAP_ERR_FUNCTION, 0},
        {"code", -1, HLSNAP_ERR_FUNCTION, 0},
        {"code", HLSNAP_ERR_LIMIT, HLSNAP_ERR_LIMIT, 0},
        {"refuse", HLSNAP_ERR_SIGNATURE, HLSNAP_ERR_SIGNATURE, 0},
        {"refuse", HLSNAP_ERR_TIMEOUT, HLSNAP_ERR_FUNCTION, 0},
        {"refuse", 0, HLSNAP_ERR_FUNCTION, 0},
        {"beyond", 5, HLSNAP_ERR_SIGNATURE, 0},
        {"r_beyond", 5, HLSNAP_ERR_SIGNATURE, 0},
        {"r_code", HLSNAP_ERR_MEMORY, HLSNAP_ERR_FUNCTION, 0},
        {"r_code", HLSNAP_ERR_STATE, HLSNAP_ERR_FUNCTION, 0},
        {"r_code", HLSNAP_OK, HLSNAP_ERR_SIGNATURE, 0}};
    static const char *const without[] = {"wrong", "nothing", "inner_nul", "fmt_nul", "fmt_i32", "r_wrong", "r_nothing"};
    hlsnap_sandbox *sb = start(GUEST_ALL, 16);
    hlsnap_value out;
    size_t i;
    for (i = 0; i < HLSNAP_COUNT(rows); i++) {
        if (!CHECK_EQ(hlsnap_sandbox_call(sb, rows[i].name, HLSNAP_ARGS(hlsnap_i32(rows[i].arg)), &out, &err), rows[i].code))
            printf("# row %zu: %s(%d)\n", i, rows[i].name, rows[i].arg);
        CHECK_EQ(err.user_code, rows[i].user_code);
        CHECK_EQ(hlsnap_sandbox_get_state(sb), HLSNAP_READY);
    }
    for (i = 0; i < HLSNAP_COUNT(without); i++) CHECK_EQ(call0(sb, without[i]), HLSNAP_ERR_SIGNATURE);
    CHECK_EQ(hlsnap_sandbox_call(sb, "last", HLSNAP_NO_ARGS, &out, &err), HLSNAP_OK);
    CHECK_EQ(out.as.i32, 2);
    CHECK_EQ(hlsnap_sandbox_call(sb, "fmt", HLSNAP_ARGS(hlsnap_i32(-5)), &out, &err), HLSNAP_OK);
    CHECK_STR(out.str, "<-5|text>");
    CHECK_EQ(call0(sb, "fail_null"), HLSNAP_ERR_FUNCTION);
    CHECK_EQ(err.user_code, 3);
    hlsnap_sandbox_destroy(sb);
}

/* hlsnap_call_fail from an export, and from a host function through the guest: code and (cut) text arrive. */
static void failure_texts(void) {
    static const char *const names[] = {"fail", "r_fail"};
    static char longer[4096];
    static const int32_t codes[] = {0, 1, -1, INT32_MIN, INT32_MAX};
    hlsnap_sandbox *sb = start(GUEST_ALL, 16);
    size_t i, k, n;
    memset(longer, 'x', sizeof(longer) - 1);
    longer[0] = '\x1b';
    for (i = 0; i < 2; i++) {
        for (k = 0; k < HLSNAP_COUNT(codes); k++) {
            CHECK_EQ(hlsnap_sandbox_call(sb, names[i], HLSNAP_ARGS(hlsnap_i32(codes[k]), hlsnap_str("why")), NULL, &err),
                     HLSNAP_ERR_FUNCTION);
            CHECK_EQ(err.user_code, codes[k]);
            CHECK(strstr(err.msg, "why") != NULL);
        }
        CHECK_EQ(hlsnap_sandbox_call(sb, names[i], HLSNAP_ARGS(hlsnap_i32(1), hlsnap_str(longer)), NULL, &err), HLSNAP_ERR_FUNCTION);
        for (n = 0; err.msg[n]; n++) CHECK(err.msg[n] >= 0x20 && err.msg[n] < 0x7f);
        CHECK(n > 300 && n < sizeof(err.msg));
    }
    for (i = 0; i < 4; i++) { /* a message that is cut is not cut inside a character */
        memset(longer, 'x', i);
        for (k = i; k + 3 < sizeof(longer); k += 3) memcpy(longer + k, "\xe2\x82\xac", 3);
        longer[k] = 0;
        CHECK_EQ(hlsnap_sandbox_call(sb, "fail", HLSNAP_ARGS(hlsnap_i32(1), hlsnap_str(longer)), NULL, &err), HLSNAP_ERR_FUNCTION);
        n = strlen(err.msg);
        CHECK(!strchr(err.msg, '\\') && n > 390 && memcmp(err.msg + n - 3, "\xe2\x82\xac", 3) == 0);
    }
    CHECK_EQ(hlsnap_sandbox_get_state(sb), HLSNAP_READY);
    hlsnap_sandbox_destroy(sb);
}

/* ---- hostile guests: one field of what the guest sends is changed ---- */

enum { IN_HEADER, IN_MESSAGE };
#define ANY (-1)               /* OK or PROTOCOL, but no crash */
#define FIELD(type, field) (uint32_t)offsetof(type, field)
#define ROW_AT(i, field) (uint32_t)(sizeof(hlsnap_abi_message) + (i) * sizeof(hlsnap_abi_value) + offsetof(hlsnap_abi_value, field))

typedef struct lie { const char *call; int where; uint32_t offset, width; uint64_t value; int code; } lie;
static const lie *lying;
static hlsnap__exit_kind lie_at; /* the exit at which it is told */

static void tell_lie(fake_cpu *cpu, hlsnap_abi_mailbox *m) {
    uint8_t *at = (uint8_t *)m;
    if (!lying || cpu->exit->kind != lie_at || cpu->resumed) return;
    if (lying->where == IN_MESSAGE) at += lie_at == HLSNAP__EXIT_CALL ? m->request : m->out_offset;
    memcpy(at + lying->offset, &lying->value, lying->width);
}

#define P HLSNAP_ERR_PROTOCOL
#define HALF 32712u            /* of a mailbox of 64 KiB */
#define MSG(field, value) IN_MESSAGE, FIELD(hlsnap_abi_message, field), 4, value
#define BOX(field, value) IN_HEADER, FIELD(hlsnap_abi_mailbox, field), 4, value
#define TYPE(i, value) IN_MESSAGE, ROW_AT(i, type), 4, value
#define SIZE(i, value) IN_MESSAGE, ROW_AT(i, size), 4, value
#define BITS(i, value) IN_MESSAGE, ROW_AT(i, bits), 8, value

static const lie result_lies[] = {
    {"e_i32", BOX(num_done, 0), P}, {"e_i32", BOX(num_done, 2), P}, {"e_i32", BOX(num_done, UINT32_MAX), P},
    {"e_i32", BOX(magic, 0), 0}, {"e_i32", BOX(in_offset, UINT32_MAX), 0}, {"e_i32", BOX(out_offset, 7), 0},
    {"e_i32", BOX(out_size, UINT32_MAX), 0}, {"e_i32", BOX(request, UINT32_MAX), 0}, {"e_i32", BOX(num_calls, 99), 0},
    {"e_i32", MSG(size, 0), P}, {"e_i32", MSG(size, 8), P}, {"e_i32", MSG(size, 15), P}, {"e_i32", MSG(size, 16), P},
    {"e_i32", MSG(size, 24), P}, {"e_i32", MSG(size, 33), P}, {"e_i32", MSG(size, 40), 0}, {"e_i32", MSG(size, HALF), 0},
    {"e_i32", MSG(size, HALF + 8), P}, {"e_i32", MSG(size, 0x80000000u), P}, {"e_i32", MSG(size, 0xfffffff8u), P},
    {"e_i32", MSG(num_values, 0), P}, {"e_i32", MSG(num_values, 2), P}, {"e_i32", MSG(num_values, 3), P},
    {"e_i32", MSG(num_values, 0x10000001u), P}, {"e_i32", MSG(num_values, UINT32_MAX), P}, {"nop", MSG(num_values, 1), P},
    {"e_i32", MSG(status, 1), P}, {"e_i32", MSG(status, 2), P}, {"e_i32", MSG(status, UINT32_MAX), P},
    {"e_i32", MSG(function, UINT32_MAX), 0},
    {"e_i32", TYPE(0, HLSNAP_VOID), P}, {"e_i32", TYPE(0, HLSNAP_U32), P}, {"e_i32", TYPE(0, HLSNAP_STR), P},
    {"e_i32", TYPE(0, HLSNAP_BYTES), P}, {"e_i32", TYPE(0, 10), P}, {"e_i32", TYPE(0, UINT32_MAX), P},
    {"e_i32", SIZE(0, 1), P}, {"e_i32", BITS(0, 1ull << 32), P}, {"e_u32", BITS(0, UINT64_MAX), P},
    {"e_f32", BITS(0, 1ull << 63), P}, {"e_bool", BITS(0, 2), P}, {"e_bool", BITS(0, 256), P}, {"e_i64", BITS(0, UINT64_MAX), 0},
    {"e_str", BITS(0, 4), P}, {"e_str", BITS(0, 33), P}, {"e_str", BITS(0, UINT64_MAX), P}, {"e_str", BITS(0, UINT64_MAX - 7), P},
    {"e_str", BITS(0, 1ull << 32), P}, {"e_str", BITS(0, 48), P}, {"e_str", BITS(0, 40), P}, {"e_str", BITS(0, 0), P},
    {"e_str", SIZE(0, 6), P}, {"e_str", SIZE(0, 8), P}, {"e_str", SIZE(0, 16), P}, {"e_str", SIZE(0, UINT32_MAX), P},
    {"e_str", SIZE(0, 0x7fffffff), P}, {"e_str", SIZE(0, 0), P},
    {"e_bytes", BITS(0, 0), 0}, {"e_bytes", BITS(0, 16), 0}, {"e_bytes", BITS(0, 40), P}, {"e_bytes", SIZE(0, 9), P},
    {"e_bytes", SIZE(0, UINT32_MAX), P}, {"e_bytes", SIZE(0, 0), 0}, {"e_bytes", TYPE(0, HLSNAP_STR), P},
    {"fail", TYPE(0, HLSNAP_U32), P}, {"fail", TYPE(1, HLSNAP_BYTES), P}, {"fail", MSG(num_values, 1), P},
    {"fail", MSG(num_values, 3), P}, {"fail", MSG(status, 0), P}, {"fail", SIZE(1, 77), P}};

static const lie request_lies[] = {
    {"r_i32", BOX(request, 0), P}, {"r_i32", BOX(request, 80), P}, {"r_i32", BOX(request, 128), P},
    {"r_i32", BOX(request, 148), P}, {"r_i32", BOX(request, 144 + HALF - 8), P},
    {"r_i32", BOX(request, 144 + HALF), P}, {"r_i32", BOX(request, 144 + HALF - 16), P},
    {"r_i32", BOX(request, 65536), P}, {"r_i32", BOX(request, 65536 - 8), P}, {"r_i32", BOX(request, 65536 - 16), P},
    {"r_i32", BOX(request, UINT32_MAX), P}, {"r_i32", BOX(request, 0xfffffff8u), P}, {"r_i32", BOX(request, 40000), P},
    {"r_i32", MSG(function, NUM_IMPORTS), P}, {"r_i32", MSG(function, I_STR), P}, {"r_i32", MSG(function, I_HOOK), P},
    {"r_i32", MSG(function, 0x7fffffff), P}, {"r_i32", MSG(function, HLSNAP_ABI_FN_LOG - 1), P},
    {"r_i32", MSG(function, HLSNAP_ABI_FN_LOG), P}, {"r_i32", MSG(function, HLSNAP_ABI_FN_ABORT), P},
    {"r_i32", MSG(function, HLSNAP_ABI_FN_ABORT + 1), P}, {"r_i32", MSG(function, UINT32_MAX), P}, {"r_i32", MSG(status, 1), ANY},
    {"r_i32", MSG(num_values, 0), P}, {"r_i32", MSG(num_values, 2), P}, {"r_i32", MSG(num_values, 33), P},
    {"r_i32", MSG(size, 16), P}, {"r_i32", MSG(size, 0), P}, {"r_i32", MSG(size, HALF), 0}, {"r_i32", MSG(size, HALF + 8), P},
    {"r_i32", TYPE(0, HLSNAP_U32), P}, {"r_i32", TYPE(0, HLSNAP_STR), P}, {"r_i32", BITS(0, 1ull << 32), P},
    {"r_str", BITS(0, 20), P}, {"r_str", BITS(0, UINT64_MAX - 7), P}, {"r_str", SIZE(0, UINT32_MAX), P}, {"r_str", SIZE(0, 3), P},
    {"r_str", TYPE(0, HLSNAP_BYTES), P}, {"r_str", TYPE(0, 99), P}, {"r_bytes", BITS(0, 0), 0},
    {"log", TYPE(0, HLSNAP_U32), P}, {"log", TYPE(1, HLSNAP_BYTES), P}, {"log", MSG(num_values, 1), P}, {"log", BITS(0, 5), P},
    {"log", BITS(0, UINT32_MAX), P}, {"log", SIZE(1, 1024), P}, {"log", SIZE(1, 3), P}, {"abort", TYPE(0, HLSNAP_I64), P},
    {"abort", SIZE(1, 0x7fffffff), P}, {"abort", MSG(num_values, 0), P}};

/* A call of any of these exports with fitting arguments; strings have 7 bytes. */
static hlsnap_result call_sample(hlsnap_sandbox *sb, const char *name) {
    const char *type = strchr(name, '_') ? strchr(name, '_') + 1 : "";
    hlsnap_value v[2], out;
    v[0] = hlsnap_i32(1);
    v[1] = strcmp(name, "fail") == 0 ? hlsnap_str("1234567") : hlsnap_bytes("1234567", 7);
    if (strcmp(type, "u32") == 0) v[0] = hlsnap_u32(5);
    if (strcmp(type, "f32") == 0) v[0] = hlsnap_f32(5);
    if (strcmp(type, "i64") == 0) v[0] = hlsnap_i64(5);
    if (strcmp(type, "bool") == 0) v[0] = hlsnap_bool(true);
    if (strcmp(type, "str") == 0) v[0] = hlsnap_str("1234567");
    if (strcmp(type, "bytes") == 0) v[0] = hlsnap_bytes("1234567", 7);
    return hlsnap_sandbox_call(sb, name, v, strcmp(name, "nop") == 0 ? 0 : *type ? 1 : 2, &out, &err);
}

static void tell_lies(const lie *rows, size_t num, hlsnap__exit_kind at) {
    hlsnap_sandbox *sb = start(GUEST_ALL, 16);
    hlsnap_snapshot *s;
    size_t i;
    CHECK_EQ(hlsnap__half(sb), HALF);
    CHECK_EQ(hlsnap_sandbox_snapshot(sb, &s, &err), HLSNAP_OK);
    hv.hook = tell_lie;
    lie_at = at;
    for (i = 0; i < num; i++) {
        hlsnap_result r;
        lying = &rows[i];
        r = call_sample(sb, rows[i].call);
        if (!CHECK(rows[i].code == ANY ? r == HLSNAP_OK || r == P : (int)r == rows[i].code))
            printf("# row %zu: %s, field at %u = 0x%llx: %s, %s\n", i, rows[i].call, rows[i].offset,
                   (unsigned long long)rows[i].value, hlsnap_result_name(r), err.msg);
        CHECK_EQ(hlsnap_sandbox_get_state(sb), r == HLSNAP_OK ? HLSNAP_READY : HLSNAP_POISONED);
        if (r) CHECK_EQ(err.code, r);
        lying = NULL;
        CHECK_EQ(hlsnap_sandbox_restore(sb, s, &err), HLSNAP_OK);
        CHECK_EQ(call_sample(sb, "r_i32"), HLSNAP_OK);
    }
    hlsnap_sandbox_destroy(sb);
    hlsnap_snapshot_release(s);
}
static void hostile_results(void) { tell_lies(result_lies, HLSNAP_COUNT(result_lies), HLSNAP__EXIT_RETURN); }
static void hostile_requests(void) { tell_lies(request_lies, HLSNAP_COUNT(request_lies), HLSNAP__EXIT_CALL); }

/* A guest that scribbles all over the mailbox before it leaves. */
static void scribble(fake_cpu *cpu, hlsnap_abi_mailbox *m) {
    uint8_t *p = (uint8_t *)m;
    const uint32_t out = m->out_offset;
    (void)cpu;
    uint32_t i;
    for (i = 0; i < 65536; i++) p[i] = (uint8_t)random_below(256);
    if (random_below(2)) m->num_done = 1;
    if (random_below(2)) m->request = out + 8 * random_below(4096);
    for (i = out; i < 65536; i += 1u << random_below(12)) /* some plausible words */
        if (i % 4 == 0) hlsnap__put64(p + (i & ~7u), random_below(64));
}

static void hostile_scribbles(void) {
    hlsnap_sandbox *sb = start(GUEST_ALL, 16);
    hlsnap_snapshot *s;
    long i, n = operations(3000);
    CHECK_EQ(hlsnap_sandbox_snapshot(sb, &s, &err), HLSNAP_OK);
    hv.hook = scribble;
    for (i = 0; i < n; i++) {
        static const char *const names[] = {"nop", "e_i32", "e_str", "e_bytes", "r_i32", "r_str", "log"};
        call_sample(sb, names[random_below(7)]);
        if (hlsnap_sandbox_get_state(sb) != HLSNAP_READY) CHECK_EQ(hlsnap_sandbox_restore(sb, s, &err), HLSNAP_OK);
    }
    hv.hook = NULL;
    hv.bad = 0; /* the fake's own runtime trips over what it scribbled */
    CHECK_EQ(hlsnap_sandbox_restore(sb, s, &err), HLSNAP_OK);
    CHECK_EQ(call_sample(sb, "r_str"), HLSNAP_OK);
    hlsnap_sandbox_destroy(sb);
    hlsnap_snapshot_release(s);
}

/* A thread that flips what the guest sent while the host reads it: the mailbox's out fields, the first message. */
#define FLIP_OUT 152u          /* where messages to the host begin behind a call with one string of 7 bytes */
static uint8_t *flip_at;
static int32_t flip_stop;
static void *flip(void *user) {
    uint32_t i = 1;
    (void)user;
    while (!__atomic_load_n(&flip_stop, __ATOMIC_RELAXED)) {
        uint32_t n;
        i = i * 1664525u + 1013904223u;
        n = i >> 24 & 1 ? FLIP_OUT + (i >> 8) % 48 : 40 + (i >> 8) % 8; /* message; num_done and request */
        if (__atomic_exchange_n(&hv.locked, 1, __ATOMIC_ACQUIRE)) continue;
        __atomic_store_n(flip_at + n, (uint8_t)(i >> 16 & 0x3f), __ATOMIC_RELAXED);
        __atomic_store_n(&hv.locked, 0, __ATOMIC_RELEASE);
    }
    return NULL;
}

static void hostile_flips(void) {
    static const char *const names[] = {"e_str", "e_bytes", "r_str", "r_bytes", "e_i32", "r_i32"};
    hlsnap_sandbox *sb = start(GUEST_ALL, 16);
    hlsnap_snapshot *s;
    pthread_t thread;
    long i, n = operations(50000), right = 0;
    CHECK_EQ(hlsnap_sandbox_snapshot(sb, &s, &err), HLSNAP_OK);
    CHECK_EQ(call_sample(sb, "e_str"), HLSNAP_OK);
    CHECK_EQ(hlsnap__out_offset(sb), FLIP_OUT);
    flip_at = sb->mailbox;
    flip_stop = 0;
    CHECK_EQ(pthread_create(&thread, NULL, flip, NULL), 0);
    for (i = 0; i < n; i++) {
        right += call_sample(sb, names[random_below(HLSNAP_COUNT(names))]) == HLSNAP_OK;
        if (hlsnap_sandbox_get_state(sb) != HLSNAP_READY) CHECK_EQ(hlsnap_sandbox_restore(sb, s, &err), HLSNAP_OK);
    }
    __atomic_store_n(&flip_stop, 1, __ATOMIC_RELAXED);
    pthread_join(thread, NULL);
    printf("# %ld of %ld calls came through\n", right, n);
    CHECK_EQ(hlsnap_sandbox_restore(sb, s, &err), HLSNAP_OK);
    CHECK_EQ(call_sample(sb, "r_str"), HLSNAP_OK);
    hlsnap_sandbox_destroy(sb);
    hlsnap_snapshot_release(s);
}

/* The same without luck: the message changes while the host makes room for it, after its header was checked. */
static const lie *lie_between;
static hlsnap_sandbox *lie_to;
static void tell_lie_between(void) {
    memcpy(lie_to->mailbox + hlsnap__out_offset(lie_to) + lie_between->offset, &lie_between->value, lie_between->width);
}

static void hostile_double_reads(void) {
    static const lie rows[] = { /* the header is the one that was checked; the rest is read once */
        {"e_str", MSG(size, 0), 0}, {"e_str", MSG(size, UINT32_MAX), 0}, {"e_str", MSG(num_values, UINT32_MAX), 0},
        {"e_str", MSG(status, 1), 0}, {"e_str", TYPE(0, HLSNAP_I32), P}, {"e_str", SIZE(0, UINT32_MAX), P},
        {"e_bytes", BITS(0, UINT64_MAX - 7), P}, {"r_str", MSG(size, UINT32_MAX), 0}, {"r_str", MSG(function, 1u << 20), 0},
        {"r_str", MSG(num_values, 33), 0}, {"r_str", SIZE(0, UINT32_MAX), P}, {"r_str", TYPE(0, 77), P}};
    size_t i;
    for (i = 0; i < HLSNAP_COUNT(rows); i++) {
        lie_to = start(GUEST_ALL, 16);
        hlsnap__free(lie_to->results.data); /* so that each message needs room */
        memset(&lie_to->results, 0, sizeof(lie_to->results));
        lie_between = &rows[i];
        inject.on_alloc = tell_lie_between;
        if (!CHECK_EQ(call_sample(lie_to, rows[i].call), rows[i].code)) printf("# row %zu\n", i);
        inject.on_alloc = NULL;
        hlsnap_sandbox_destroy(lie_to);
    }
}

/* What the guest says of its heap as it leaves, and how deep its stack is. */
static uint64_t tell_used, tell_peak;
static void tell_heap(fake_cpu *cpu, hlsnap_abi_mailbox *m) {
    (void)cpu;
    CHECK(m->op != HLSNAP_ABI_OP_CALL || (!m->heap_used && !m->heap_peak)); /* nothing is left of the last entry */
    m->heap_used = tell_used;
    m->heap_peak = tell_peak;
}
static void told(hlsnap_sandbox *sb, uint64_t used, uint64_t peak, uint64_t want_used, uint64_t want_peak) {
    hlsnap_stats stats;
    tell_used = used;
    tell_peak = peak;
    CHECK_EQ(hlsnap_sandbox_call(sb, "nop", HLSNAP_NO_ARGS, NULL, &err), HLSNAP_OK);
    hlsnap_sandbox_get_stats(sb, &stats);
    CHECK_EQ(stats.heap_used, want_used);
    CHECK_EQ(stats.heap_peak, want_peak);
}
static uint64_t stack_peak(const hlsnap_sandbox *sb) {
    hlsnap_stats stats;
    hlsnap_sandbox_get_stats(sb, &stats);
    return stats.stack_peak;
}
static void heap_and_stack(void) {
    const hlsnap_sandbox_desc d = host_desc();
    hlsnap_sandbox *sb = start(GUEST_ALL, 16);
    const uint64_t stack = region_gva(sb, HLSNAP__STACK), size = 64 << 10;
    static const uint8_t zeros[8192];
    hlsnap_snapshot *s, *deep;
    hlsnap_stats stats;
    told(sb, 0, 0, 0, 0); /* a guest that says nothing */
    hv.hook = tell_heap;
    told(sb, 100, 5000, 100, 5000);
    told(sb, 7, 4000, 7, 5000); /* the peak is that of all restores */
    told(sb, 1, 0, 7, 5000);
    told(sb, 65536, 65536, 65536, 65536);
    told(sb, UINT64_MAX, UINT64_MAX, 65536, 65536); /* bounded by the heap */
    hv.hook = NULL;
    CHECK_EQ(hlsnap_sandbox_snapshot(sb, &s, &err), HLSNAP_OK);
    CHECK_EQ(stack_peak(sb), 0);
    CHECK_EQ(hlsnap_sandbox_write(sb, stack + size - 1, "x", 1, &err), HLSNAP_OK);
    CHECK_EQ(stack_peak(sb), 4096);
    CHECK_EQ(hlsnap_sandbox_call(sb, "poke", HLSNAP_ARGS(hlsnap_u64(stack + size - 5 * 4096), hlsnap_bytes("x", 1)), NULL, &err),
             HLSNAP_OK);
    CHECK_EQ(stack_peak(sb), 5 * 4096); /* which the host did not write, and a page between that nobody did */
    CHECK_EQ(hlsnap_sandbox_snapshot(sb, &deep, &err), HLSNAP_OK);
    CHECK_EQ(hlsnap_sandbox_write(sb, stack + size - 5 * 4096, zeros, 8192, &err), HLSNAP_OK);
    CHECK_EQ(stack_peak(sb), 4096);
    CHECK_EQ(hlsnap_sandbox_restore(sb, deep, &err), HLSNAP_OK);
    CHECK_EQ(stack_peak(sb), 5 * 4096);
    CHECK_EQ(hlsnap_sandbox_restore(sb, s, &err), HLSNAP_OK);
    CHECK_EQ(stack_peak(sb), 0);
    hlsnap_sandbox_destroy(sb);
    CHECK_EQ(hlsnap_sandbox_create_from(deep, &d, &sb, &err), HLSNAP_OK);
    CHECK_EQ(stack_peak(sb), 5 * 4096); /* of the snapshot's own pages, none of which was touched */
    CHECK_EQ(hlsnap_sandbox_write(sb, stack, "x", 1, &err), HLSNAP_OK);
    CHECK_EQ(stack_peak(sb), size);
    hv.hook = tell_heap; /* also as it ends itself */
    tell_used = 8;
    tell_peak = 6000;
    CHECK_EQ(hlsnap_sandbox_call(sb, "abort", HLSNAP_ARGS(hlsnap_i32(1), hlsnap_bytes("", 0)), NULL, &err), HLSNAP_ERR_ABORT);
    hlsnap_sandbox_get_stats(sb, &stats);
    CHECK(stats.heap_used == 8 && stats.heap_peak == 6000);
    hv.hook = NULL;
    hlsnap_sandbox_destroy(sb);
    hlsnap_snapshot_release(deep);
    hlsnap_snapshot_release(s);
}

/* ---- hostile guests: init ---- */

static const lie init_lies[] = {
    {NULL, BOX(guest_abi, HLSNAP_ABI_VERSION + 1), HLSNAP_ERR_ABI}, {NULL, BOX(guest_abi, UINT32_MAX), HLSNAP_ERR_ABI},
    {NULL, BOX(num_exports, UINT32_MAX), P}, {NULL, BOX(num_exports, 1000), P}, {NULL, BOX(num_exports, 90), P},
    {NULL, BOX(num_done, UINT32_MAX), 0}, {NULL, BOX(out_offset, UINT32_MAX), 0},
    {NULL, IN_HEADER, FIELD(hlsnap_abi_mailbox, entry), 8, FAKE_TEXT, 0},
    {NULL, IN_HEADER, FIELD(hlsnap_abi_mailbox, entry), 8, FAKE_TEXT + 4095, 0},
    {NULL, IN_HEADER, FIELD(hlsnap_abi_mailbox, entry), 8, FAKE_TEXT + 4096, P},
    {NULL, IN_HEADER, FIELD(hlsnap_abi_mailbox, entry), 8, FAKE_DATA, P},
    {NULL, IN_HEADER, FIELD(hlsnap_abi_mailbox, entry), 8, 1, P},
    {NULL, IN_HEADER, FIELD(hlsnap_abi_mailbox, entry), 8, UINT64_MAX, P},
    {NULL, MSG(size, 0), P}, {NULL, MSG(size, 16), P}, {NULL, MSG(size, HALF + 8), P}, {NULL, MSG(size, UINT32_MAX), P},
    {NULL, MSG(num_values, 0), P}, {NULL, MSG(num_values, 7), P}, {NULL, MSG(num_values, 5000), P},
    {NULL, MSG(num_values, UINT32_MAX), P}, {NULL, MSG(num_values, UINT32_MAX - 1), P}, {NULL, MSG(num_values, 2048), P},
    {NULL, TYPE(0, HLSNAP_BYTES), P}, {NULL, TYPE(3, HLSNAP_I32), P}, {NULL, TYPE(0, 77), P}, {NULL, BITS(0, UINT64_MAX - 7), P},
    {NULL, BITS(2, 4), P}, {NULL, SIZE(0, UINT32_MAX), P}, {NULL, SIZE(1, 1u << 20), P}, {NULL, SIZE(0, 2), P}};

static void init_refused(hlsnap_result code, const hlsnap_guest_desc *g) {
    const balance was = balance_now();
    const hlsnap_sandbox_desc d = host_desc();
    hlsnap_sandbox *sb = NULL;
    const hlsnap_result r = hlsnap_sandbox_create(g, &d, &sb, &err);
    if (!CHECK_EQ(r, code)) printf("# %s\n", r ? err.msg : "");
    CHECK_EQ(!sb, r != HLSNAP_OK);
    if (r) CHECK_EQ(err.code, code);
    hlsnap_sandbox_destroy(sb);
    CHECK_EQ(balance_now().live, was.live);
}

static void hostile_init(void) {
    hlsnap_guest_desc g = fake_guest(GUEST_ALL, 16);
    size_t i;
    hv.hook = tell_lie;
    lie_at = HLSNAP__EXIT_RETURN;
    for (i = 0; i < HLSNAP_COUNT(init_lies); i++) {
        lying = &init_lies[i];
        init_refused((hlsnap_result)init_lies[i].code, &g);
        if (test_bad) printf("# init row %zu\n", i);
    }
    lying = NULL;
    hv.hook = NULL;
}

static char list_names[HLSNAP_MAX_FUNCTIONS + 1][8];
static fake_function list_exports[HLSNAP_MAX_FUNCTIONS + 1];
static hlsnap_function list_imports[HLSNAP_MAX_FUNCTIONS + 1];

/* Lists of functions that no honest compiler would make. */
static void hostile_lists(void) {
    static const struct { uint32_t exports, imports; const char *name, *signature; hlsnap_result code; } rows[] = {
        {0, 0, NULL, NULL, HLSNAP_OK}, {1, 0, "ok", "void()", HLSNAP_OK}, {2, 0, "f1", "void()", HLSNAP_ERR_DUPLICATE},
        {0, 2, "f1", "void()", HLSNAP_ERR_DUPLICATE}, {1, 0, "", "void()", HLSNAP_ERR_ARG}, {1, 0, "a b", "void()", HLSNAP_ERR_ARG},
        {1, 0, "\x1b[2J", "void()", HLSNAP_ERR_ARG}, {1, 0, X32("i64"), "void()", HLSNAP_ERR_ARG},
        {1, 0, "a", "", HLSNAP_ERR_SIGNATURE}, {1, 0, "a", "void(\x07)", HLSNAP_ERR_SIGNATURE},
        {1, 0, "a", "i64(" X32("i64") ",i64)", HLSNAP_ERR_SIGNATURE}, {0, 1, "a", "i32(void)", HLSNAP_ERR_SIGNATURE},
        {HLSNAP_MAX_FUNCTIONS, 0, NULL, NULL, HLSNAP_OK}, {HLSNAP_MAX_FUNCTIONS + 1, 0, NULL, NULL, P},
        {0, HLSNAP_MAX_FUNCTIONS, NULL, NULL, HLSNAP_ERR_CONTRACT}, {0, HLSNAP_MAX_FUNCTIONS + 1, NULL, NULL, P},
        {1, 1, NULL, NULL, HLSNAP_ERR_CONTRACT}};
    fake_program program = {fake_runtime, list_exports, 0, list_imports, 0};
    hlsnap_guest_desc g = fake_guest(0, 16);
    size_t i;
    for (i = 0; i < HLSNAP_COUNT(list_exports); i++) {
        snprintf(list_names[i], sizeof(list_names[i]), "f%zu", i);
        list_exports[i].name = list_imports[i].name = list_names[i];
        list_exports[i].signature = list_imports[i].signature = "void()";
        list_exports[i].fn = g_nop;
    }
    g.mailbox_size = 256u << 10;
    for (i = 0; i < HLSNAP_COUNT(rows); i++) {
        program.num_exports = rows[i].exports;
        program.num_imports = rows[i].imports;
        hv.programs = &program;
        list_exports[0].name = list_imports[0].name = rows[i].name ? rows[i].name : "f0";
        list_exports[0].signature = list_imports[0].signature = rows[i].signature ? rows[i].signature : "void()";
        init_refused(rows[i].code, &g);
        if (test_bad) printf("# list %zu\n", i);
    }
}

/* What else init may do: ask for an import before there are any, fault, abort, loop, log. */
static hlsnap__exit_kind init_leaves;
static uint32_t init_function;
static void leave_init(fake_cpu *cpu, hlsnap_abi_mailbox *m) {
    hlsnap_value v[2];
    if (m->op != HLSNAP_ABI_OP_INIT || cpu->resumed) return;
    v[0] = hlsnap_i32(1);
    v[1] = hlsnap_str("from init");
    if (init_function == HLSNAP_ABI_FN_RESULT || init_function == HLSNAP_ABI_FN_TAKE) v[0] = hlsnap_u64(cpu->entry.rdi), v[1] = hlsnap_u64(8);
    cpu->out = m->out_offset;
    if (init_leaves == HLSNAP__EXIT_CALL) fake_request(cpu, init_function, v, 2);
    else if (init_leaves == HLSNAP__EXIT_FAULT) fake_fault(cpu, 13, FAKE_TEXT, 0, 0);
    else if (init_leaves == HLSNAP__EXIT_KICKED) b_spin(cpu);
    else fake_leave(cpu, init_leaves, "init");
}

static void init_misbehaves(void) {
    static const struct { hlsnap__exit_kind kind; uint32_t function; hlsnap_result code; } rows[] = {
        {HLSNAP__EXIT_CALL, 0, P}, {HLSNAP__EXIT_CALL, I_FAIL, P}, {HLSNAP__EXIT_CALL, HLSNAP_ABI_FN_LOG, HLSNAP_OK},
        {HLSNAP__EXIT_CALL, HLSNAP_ABI_FN_RESULT, P}, {HLSNAP__EXIT_CALL, HLSNAP_ABI_FN_TAKE, P},
        {HLSNAP__EXIT_CALL, HLSNAP_ABI_FN_ABORT, HLSNAP_ERR_ABORT}, {HLSNAP__EXIT_FAULT, 0, HLSNAP_ERR_FAULT},
        {HLSNAP__EXIT_PROTOCOL, 0, P}, {HLSNAP__EXIT_DEAD, 0, HLSNAP_ERR_HYPERVISOR}, {HLSNAP__EXIT_KICKED, 0, HLSNAP_ERR_TIMEOUT}};
    const hlsnap_guest_desc g = fake_guest(GUEST_ALL, 16);
    hlsnap_sandbox_desc d = host_desc();
    hlsnap_sandbox *sb, *kept = start(GUEST_FEW, 16);
    hlsnap_snapshot *pre, *s;
    size_t i;
    CHECK_EQ(hlsnap_snapshot_from_guest(&g, &pre, &err), HLSNAP_OK);
    CHECK_EQ(hlsnap_sandbox_snapshot(kept, &s, &err), HLSNAP_OK);
    hv.hook = leave_init;
    for (i = 0; i < HLSNAP_COUNT(rows); i++) {
        d.timeout_ns = rows[i].kind == HLSNAP__EXIT_KICKED ? 20000000 : 0;
        init_leaves = rows[i].kind;
        init_function = rows[i].function;
        if (!CHECK_EQ(hlsnap_sandbox_create_from(pre, &d, &sb, &err), rows[i].code)) printf("# row %zu\n", i);
        hlsnap_sandbox_destroy(sb);
        if (rows[i].kind == HLSNAP__EXIT_KICKED) continue; /* `kept` has no time limit */
        CHECK_EQ(hlsnap_sandbox_restore(kept, pre, &err), rows[i].code);
        CHECK_EQ(hlsnap_sandbox_get_state(kept), rows[i].code ? HLSNAP_POISONED : HLSNAP_READY);
        CHECK_EQ(hlsnap_sandbox_restore(kept, s, &err), HLSNAP_OK);
        CHECK_EQ(call0(kept, "nop"), HLSNAP_OK);
    }
    hlsnap_sandbox_destroy(kept);
    hlsnap_snapshot_release(pre);
    hlsnap_snapshot_release(s);
}

/* ---- faults and other exits ---- */

static void faults(void) {
    hlsnap_sandbox *sb = start(GUEST_ALL, 16);
    const uint64_t stack = region_gva(sb, HLSNAP__STACK), heap = region_gva(sb, HLSNAP__HEAP);
    const struct { uint32_t vector; uint64_t rip, cr2; uint32_t code; const char *region; } rows[] = {
        {14, FAKE_TEXT, 0, 6, "null"}, {14, FAKE_TEXT, 0xffff, 4, "null"}, {14, FAKE_TEXT, 0x10000, 20, "unresolved"},
        {14, FAKE_TEXT, 0x100000, 7, "supervisor"}, {14, FAKE_TEXT, 0x17ffff, 7, "supervisor"}, {14, FAKE_TEXT, 0x180000, 6, "unmapped"},
        {14, FAKE_TEXT, stack - 8, 6, "guard"}, {14, FAKE_TEXT, heap - 1, 6, "guard"}, {14, FAKE_TEXT, FAKE_TEXT, 7, "text"},
        {14, FAKE_TEXT, FAKE_DATA, 21, "data"}, {14, FAKE_TEXT, stack, 21, "stack"}, {14, FAKE_TEXT, heap, 21, "heap"},
        {14, FAKE_TEXT, region_gva(sb, HLSNAP__IDENTITY), 7, "identity"}, {14, FAKE_TEXT, region_gva(sb, HLSNAP__MAILBOX), 21, "mailbox"},
        {14, FAKE_TEXT, heap + 16 * 4096, 6, "unmapped"}, {14, 0, UINT64_MAX, 6, "unmapped"}, {13, FAKE_TEXT + 9, 0, 0, "text"},
        {0, FAKE_TEXT, 5, 0, "text"}, {6, FAKE_TEXT + 4095, 0, 0, "text"}, {6, UINT64_MAX, 0, 0, "unmapped"}, {8, 0, 0, 0, "null"},
        {14, HLSNAP__SYSCALL_GVA, HLSNAP__SYSCALL_GVA, 20, "supervisor"}, {31, FAKE_DATA, 0, 0, "data"}, {UINT32_MAX, heap, 0, 0, "heap"}};
    hlsnap_snapshot *s;
    size_t i;
    CHECK_EQ(hlsnap_sandbox_snapshot(sb, &s, &err), HLSNAP_OK);
    for (i = 0; i < HLSNAP_COUNT(rows); i++) {
        memset(&err, 0x55, sizeof(err));
        CHECK_EQ(hlsnap_sandbox_call(sb, "fault", HLSNAP_ARGS(hlsnap_u32(rows[i].vector), hlsnap_u64(rows[i].rip),
                 hlsnap_u64(rows[i].cr2), hlsnap_u32(rows[i].code)), NULL, &err), HLSNAP_ERR_FAULT);
        CHECK_EQ(err.code, HLSNAP_ERR_FAULT);
        CHECK(err.vector == rows[i].vector && err.rip == rows[i].rip && err.cr2 == rows[i].cr2 && err.error_code == rows[i].code);
        CHECK_STR(err.region, rows[i].region);
        CHECK_EQ(hlsnap_sandbox_get_state(sb), HLSNAP_POISONED);
        CHECK_EQ(hlsnap_sandbox_restore(sb, s, NULL), HLSNAP_OK);
        CHECK_EQ(hlsnap_sandbox_call(sb, "peek", HLSNAP_ARGS(hlsnap_u64(8)), NULL, NULL), HLSNAP_ERR_FAULT);
        CHECK_EQ(hlsnap_sandbox_restore(sb, s, &err), HLSNAP_OK);
    }
    hlsnap_sandbox_destroy(sb);
    hlsnap_snapshot_release(s);
}

static void exits(void) {
    hlsnap_sandbox *sb = start(GUEST_ALL, 16);
    hlsnap_snapshot *s;
    hlsnap_value out;
    const long shells = hv.calls[FAKE_CREATE];
    CHECK_EQ(hlsnap_sandbox_snapshot(sb, &s, &err), HLSNAP_OK);
    CHECK_EQ(hlsnap_sandbox_call(sb, "leave", HLSNAP_ARGS(hlsnap_u32(HLSNAP__EXIT_KICKED), hlsnap_u32(5)), NULL, &err), HLSNAP_OK);
    CHECK_EQ(hlsnap_sandbox_call(sb, "leave", HLSNAP_ARGS(hlsnap_u32(HLSNAP__EXIT_PROTOCOL), hlsnap_u32(1)), NULL, &err), P);
    CHECK_EQ(hlsnap_sandbox_restore(sb, s, &err), HLSNAP_OK);
    CHECK_EQ(hv.calls[FAKE_CREATE], shells); /* the VM is kept */
    CHECK_EQ(hlsnap_sandbox_call(sb, "leave", HLSNAP_ARGS(hlsnap_u32(HLSNAP__EXIT_DEAD), hlsnap_u32(1)), NULL, &err),
             HLSNAP_ERR_HYPERVISOR);
    CHECK_EQ(hlsnap_sandbox_restore(sb, s, &err), HLSNAP_OK);
    CHECK_EQ(hv.calls[FAKE_CREATE], shells + 1); /* a dead one is replaced */
    CHECK_EQ(hlsnap_sandbox_call(sb, "leave", HLSNAP_ARGS(hlsnap_u32(99), hlsnap_u32(1)), NULL, &err), HLSNAP_ERR_HYPERVISOR);
    CHECK_EQ(hlsnap_sandbox_restore(sb, s, &err), HLSNAP_OK);
    hv.fail[FAKE_BEGIN] = 1;
    CHECK_EQ(call0(sb, "nop"), HLSNAP_ERR_HYPERVISOR);
    CHECK_EQ(hlsnap_sandbox_get_state(sb), HLSNAP_READY); /* nothing ran */
    CHECK_EQ(hlsnap_sandbox_call(sb, "scratch", HLSNAP_ARGS(hlsnap_u64(77)), &out, &err), HLSNAP_OK);
    CHECK_EQ(hlsnap_sandbox_call(sb, "scratch", HLSNAP_ARGS(hlsnap_u64(78)), &out, &err), HLSNAP_OK);
    CHECK_EQ(out.as.u64, 77);
    CHECK_EQ(hlsnap_sandbox_restore(sb, s, &err), HLSNAP_OK);
    CHECK_EQ(hlsnap_sandbox_call(sb, "scratch", HLSNAP_ARGS(hlsnap_u64(0)), &out, &err), HLSNAP_OK);
    CHECK_EQ(out.as.u64, 0); /* no register survives a restore */
    hlsnap_sandbox_destroy(sb);
    hlsnap_snapshot_release(s);
}

/* ---- log and abort ---- */

static int log_lines, log_last_level;
static char log_last[8192];
static size_t log_last_size;
static void log_line(int level, const char *text, size_t size, void *user) {
    log_lines++;
    log_last_level = level;
    log_last_size = size;
    CHECK(user == log_last && size < sizeof(log_last) && strlen(text) == size);
    memcpy(log_last, text, size + 1);
}

static hlsnap_result say(hlsnap_sandbox *sb, const char *how, int32_t level, const void *text, size_t size) {
    return hlsnap_sandbox_call(sb, how, HLSNAP_ARGS(hlsnap_i32(level), hlsnap_bytes(text, size)), NULL, &err);
}

/* The level lives in the sandbox, not in the snapshot: it is another one after create_from. */
static void log_levels(void) {
    static const int32_t levels[] = {-1, 0, 1, 2, 3, 4};
    hlsnap_sandbox *sb = start(GUEST_ALL, 16);
    hlsnap_snapshot *s;
    hlsnap_value out;
    size_t i;
    CHECK_EQ(hlsnap_sandbox_snapshot(sb, &s, &err), HLSNAP_OK);
    CHECK_EQ(hlsnap_sandbox_call(sb, "log_level", HLSNAP_NO_ARGS, &out, &err), HLSNAP_OK);
    CHECK_EQ(out.as.i32, -1); /* no log function */
    CHECK_EQ(say(sb, "log", 1, "dropped", 7), HLSNAP_OK);
    hlsnap_sandbox_destroy(sb);
    for (i = 0; i < HLSNAP_COUNT(levels); i++) {
        const int32_t level = levels[i] ? levels[i] : 1;
        hlsnap_sandbox_desc d = host_desc();
        int32_t k;
        d.log = log_line;
        d.log_user = log_last;
        d.log_level = levels[i];
        CHECK_EQ(hlsnap_sandbox_create_from(s, &d, &sb, &err), HLSNAP_OK);
        CHECK_EQ(hlsnap_sandbox_call(sb, "log_level", HLSNAP_NO_ARGS, &out, &err), HLSNAP_OK);
        CHECK_EQ(out.as.i32, level);
        for (k = 0; k <= 4; k++) {
            log_lines = 0;
            CHECK_EQ(say(sb, "log", k, "text", 4), HLSNAP_OK);
            CHECK_EQ(log_lines, k <= level);
            if (k <= level) CHECK_EQ(log_last_level, k);
        }
        hlsnap_sandbox_destroy(sb);
    }
    hlsnap_snapshot_release(s);
}

/* Who listens may change at any time; the guest knows it at once, and restores change nothing of it. */
static hlsnap_sandbox *listened;
static void log_while_called(void) { hlsnap_sandbox_set_log(listened, 3, log_line, log_last); }
static void log_changes(void) {
    static const int32_t levels[][2] = {{-9, -1}, {-1, -1}, {0, 1}, {2, 2}, {4, 4}, {INT32_MAX, 4}};
    hlsnap_sandbox *sb = start(GUEST_ALL, 16);
    hlsnap_snapshot *s;
    hlsnap_value out;
    size_t i;
    CHECK_EQ(hlsnap_sandbox_snapshot(sb, &s, &err), HLSNAP_OK);
    for (i = 0; i < 2 * HLSNAP_COUNT(levels); i++) {
        const int32_t level = levels[i / 2][1];
        hlsnap_sandbox_set_log(sb, levels[i / 2][0], log_line, log_last);
        if (i & 1) CHECK_EQ(hlsnap_sandbox_restore(sb, s, &err), HLSNAP_OK);
        CHECK_EQ(hlsnap_sandbox_call(sb, "log_level", HLSNAP_NO_ARGS, &out, &err), HLSNAP_OK);
        CHECK_EQ(out.as.i32, level);
        log_lines = 0;
        CHECK_EQ(say(sb, "log", 2, "text", 4), HLSNAP_OK);
        CHECK_EQ(log_lines, level >= 2);
    }
    hlsnap_sandbox_set_log(sb, 4, NULL, NULL);
    CHECK_EQ(hlsnap_sandbox_call(sb, "log_level", HLSNAP_NO_ARGS, &out, &err), HLSNAP_OK);
    CHECK_EQ(out.as.i32, -1);
    CHECK_EQ(say(sb, "log", 1, "dropped", 7), HLSNAP_OK);
    listened = sb;
    on_hook = log_while_called;
    CHECK_EQ(call0(sb, "hook"), HLSNAP_OK);
    on_hook = NULL;
    CHECK_EQ(hlsnap_sandbox_call(sb, "log_level", HLSNAP_NO_ARGS, &out, &err), HLSNAP_OK);
    CHECK_EQ(out.as.i32, 3);
    hlsnap_sandbox_set_log(sb, -1, log_line, log_last);
    CHECK_EQ(say(sb, "abort", 1, "", 0), HLSNAP_ERR_ABORT);
    hlsnap_sandbox_set_log(sb, 2, log_line, log_last); /* poisoned: there from the restore on */
    hlsnap_sandbox_set_log(NULL, 2, log_line, log_last);
    hlsnap_sandbox_set_output(NULL, NULL, NULL);
    CHECK_EQ(hlsnap_sandbox_restore(sb, s, &err), HLSNAP_OK);
    CHECK_EQ(hlsnap_sandbox_call(sb, "log_level", HLSNAP_NO_ARGS, &out, &err), HLSNAP_OK);
    CHECK_EQ(out.as.i32, 2);
    hlsnap_sandbox_destroy(sb);
    hlsnap_snapshot_release(s);
}

static void log_text(void) {
    static const struct { const char *in; size_t size; const char *out; } rows[] = {
        {"plain", 5, "plain"}, {"", 0, ""}, {"a\n\tb", 4, "a\\x0a\tb"}, {"line\n", 5, "line"}, {"\n", 1, ""}, {"two\n\n", 5, "two\\x0a"},
        {"dos\r\n", 5, "dos\\x0d"}, {"x\n[error] forged", 16, "x\\x0a[error] forged"}, {"\x1b[31mred", 8, "\\x1b[31mred"},
        {"back\\slash", 10, "back\\x5cslash"}, {"\x7f\x80\xff\r", 4, "\\x7f\\x80\\xff\\x0d"},
        {"gr\xc3\xbc\xc3\x9f \xe2\x82\xac", 10, "gr\xc3\xbc\xc3\x9f \xe2\x82\xac"}, {"\xe2\x80\xa8[error]", 10, "\\xe2\\x80\\xa8[error]"}};
    const hlsnap_guest_desc g = fake_guest(GUEST_ALL, 16);
    hlsnap_sandbox_desc d = host_desc();
    hlsnap_sandbox *sb;
    hlsnap_snapshot *s;
    char longest[1024];
    size_t i;
    d.log = log_line;
    d.log_user = log_last;
    d.log_level = 4;
    CHECK_EQ(hlsnap_sandbox_create(&g, &d, &sb, &err), HLSNAP_OK);
    CHECK_EQ(hlsnap_sandbox_snapshot(sb, &s, &err), HLSNAP_OK);
    for (i = 0; i < HLSNAP_COUNT(rows); i++) {
        CHECK_EQ(say(sb, "log", 3, rows[i].in, rows[i].size), HLSNAP_OK);
        CHECK_STR(log_last, rows[i].out);
        CHECK_EQ(log_last_size, strlen(rows[i].out));
        CHECK_EQ(say(sb, "abort", -7 - (int32_t)i, rows[i].in, rows[i].size), HLSNAP_ERR_ABORT);
        CHECK(err.code == HLSNAP_ERR_ABORT && err.user_code == -7 - (int32_t)i && !strpbrk(err.msg, "\n\t\x1b\x7f"));
        if (i >= HLSNAP_COUNT(rows) - 2) CHECK(strstr(err.msg, rows[i].out) != NULL);
        CHECK_EQ(hlsnap_sandbox_restore(sb, s, &err), HLSNAP_OK);
    }
    memset(longest, 1, sizeof(longest));
    CHECK_EQ(say(sb, "log", 4, longest, 1023), HLSNAP_OK);
    CHECK_EQ(log_last_size, 4 * 1023);
    CHECK_EQ(say(sb, "log", 4, longest, 1024), P);
    CHECK_EQ(hlsnap_sandbox_restore(sb, s, &err), HLSNAP_OK);
    CHECK_EQ(say(sb, "log", 4, "a\0b", 3), P);
    CHECK_EQ(hlsnap_sandbox_restore(sb, s, &err), HLSNAP_OK);
    CHECK_EQ(say(sb, "log", 5, "x", 1), P);
    CHECK_EQ(hlsnap_sandbox_restore(sb, s, &err), HLSNAP_OK);
    CHECK_EQ(say(sb, "log", INT32_MIN, "x", 1), P);
    CHECK_EQ(hlsnap_sandbox_restore(sb, s, &err), HLSNAP_OK);
    log_lines = 0;
    CHECK_EQ(hlsnap_sandbox_call(sb, "flood", HLSNAP_ARGS(hlsnap_u32(10000)), NULL, &err), HLSNAP_OK);
    CHECK_EQ(log_lines, 10000);
    hlsnap_sandbox_destroy(sb);
    hlsnap_snapshot_release(s);
}

/* What goes to fd 1 and 2: lines of at most 1,000 bytes that are not cut inside a character, or the bytes as they are. */
static char out_bytes[2][8192];
static size_t out_size[2];
static void out_take(int fd, const void *bytes, size_t size, void *user) {
    CHECK((fd == 1 || fd == 2) && user == out_bytes && size && size <= sizeof(out_bytes[0]) - out_size[fd - 1]);
    memcpy(out_bytes[fd - 1] + out_size[fd - 1], bytes, size);
    out_size[fd - 1] += size;
}
static char out_log[8192];
static size_t out_lines[64], out_num;
static void out_line(int level, const char *text, size_t size, void *user) {
    const size_t at = strlen(out_log);
    CHECK(level == 0 && user == out_log && strlen(text) == size && size + at < sizeof(out_log) && out_num < 64);
    memcpy(out_log + at, text, size + 1);
    if (out_num < 64) out_lines[out_num++] = size;
}

static void output_lines_text(void) {
    static const struct { const char *character; size_t size; } rows[] = {
        {"\xc3\xbc", 2}, {"\xe2\x82\xac", 3}, {"\xf0\x9f\x98\x80", 4}};
    const hlsnap_guest_desc g = fake_guest(GUEST_ALL, 16);
    hlsnap_sandbox_desc d = host_desc();
    hlsnap_sandbox *sb;
    char text[3100];
    size_t i, k, shift;
    d.log = out_line;
    d.log_user = out_log;
    CHECK_EQ(hlsnap_sandbox_create(&g, &d, &sb, &err), HLSNAP_OK);
    for (i = 0; i < HLSNAP_COUNT(rows); i++)
        for (shift = 0; shift < 4; shift++) {
            size_t n = shift;
            memset(text, 'x', shift);
            for (; n + rows[i].size <= 3000; n += rows[i].size) memcpy(text + n, rows[i].character, rows[i].size);
            text[n++] = '\n';
            out_num = 0;
            out_log[0] = 0;
            CHECK_EQ(say(sb, "output", 1, text, n), HLSNAP_OK);
            CHECK(strlen(out_log) == n - 1 && memcmp(out_log, text, n - 1) == 0); /* nothing escaped, nothing lost */
            CHECK(out_num == 3 || out_num == 4);
            for (k = 0; k + 1 < out_num; k++) CHECK(out_lines[k] > 996 && out_lines[k] <= 1000);
        }
    out_num = 0;
    out_log[0] = 0; /* a character in two calls is not put together: each call ends its line */
    CHECK_EQ(say(sb, "output", 1, "a\xe2\x82", 3), HLSNAP_OK);
    CHECK_EQ(say(sb, "output", 1, "\xac\n", 2), HLSNAP_OK);
    CHECK_STR(out_log, "a\\xe2\\x82\\xac");
    memset(text, 0x80, 3000); /* no character at all */
    out_num = 0;
    out_log[0] = 0;
    CHECK_EQ(say(sb, "output", 1, text, 1500), HLSNAP_OK);
    CHECK(out_num == 2 && out_lines[0] == 4000 && out_lines[1] == 2000);
    hlsnap_sandbox_destroy(sb);
    d.output = out_take;
    d.output_user = out_bytes;
    CHECK_EQ(hlsnap_sandbox_create(&g, &d, &sb, &err), HLSNAP_OK);
    CHECK_EQ(say(sb, "output", 1, "\0\xff\n", 3), HLSNAP_OK);
    CHECK_EQ(say(sb, "output", 2, "\xe2", 1), HLSNAP_OK);
    CHECK(out_size[0] == 3 && memcmp(out_bytes[0], "\0\xff\n", 3) == 0 && out_size[1] == 1 && out_bytes[1][0] == '\xe2');
    CHECK_EQ(say(sb, "output", 3, "x", 1), P);
    hlsnap_sandbox_destroy(sb);
}

static void output_changes(void) {
    hlsnap_sandbox *sb = start(GUEST_ALL, 16);
    out_size[0] = 0;
    CHECK_EQ(say(sb, "output", 1, "nobody", 6), HLSNAP_OK);
    hlsnap_sandbox_set_output(sb, out_take, out_bytes);
    CHECK_EQ(say(sb, "output", 1, "a", 1), HLSNAP_OK);
    hlsnap_sandbox_set_log(sb, 4, out_line, out_log); /* not what output gets */
    out_num = 0;
    out_log[0] = 0;
    CHECK_EQ(say(sb, "output", 1, "b\n", 2), HLSNAP_OK);
    CHECK(out_num == 0 && out_size[0] == 3 && memcmp(out_bytes[0], "ab\n", 3) == 0);
    hlsnap_sandbox_set_output(sb, NULL, NULL);
    CHECK_EQ(say(sb, "output", 1, "c\n", 2), HLSNAP_OK);
    CHECK(out_num == 1 && out_size[0] == 3);
    CHECK_STR(out_log, "c");
    hlsnap_sandbox_destroy(sb);
}

/* ---- the clock: who does not ask costs nothing ---- */

static uint64_t clock_of(hlsnap_sandbox *sb, bool asks) {
    hlsnap_value v;
    CHECK_EQ(hlsnap_sandbox_call(sb, "clock", HLSNAP_ARGS(hlsnap_bool(asks)), &v, &err), HLSNAP_OK);
    return v.as.u64;
}

static void clock_is_asked_for(void) {
    hlsnap_sandbox_desc d = host_desc();
    const hlsnap_guest_desc g = fake_guest(GUEST_ALL, 16);
    hlsnap_sandbox *sb;
    uint64_t earlier, told;
    CHECK_EQ(hlsnap_sandbox_create(&g, &d, &sb, &err), HLSNAP_OK);
    CHECK_EQ(clock_of(sb, false), 0);
    earlier = hlsnap__realtime_ns();
    told = clock_of(sb, true);
    CHECK(told >= earlier && told <= hlsnap__realtime_ns());
    CHECK_EQ(clock_of(sb, false), 0); /* of that entry only */
    hlsnap_sandbox_destroy(sb);
    d.no_clock = true;
    CHECK_EQ(hlsnap_sandbox_create(&g, &d, &sb, &err), HLSNAP_OK);
    CHECK_EQ(clock_of(sb, true), 0);
    hlsnap_sandbox_destroy(sb);
}

/* ---- cancellation and time ---- */

static void *cancel_when_spinning(void *user) {
    static const struct timespec moment = {0, 100000};
    while (!__atomic_load_n(&hv.spinning, __ATOMIC_ACQUIRE)) nanosleep(&moment, NULL);
    CHECK(hlsnap_interrupt_cancel((hlsnap_interrupt *)user));
    hlsnap_interrupt_cancel((hlsnap_interrupt *)user);
    return NULL;
}

static hlsnap_interrupt *hooked;
static void cancel_hooked(void) { CHECK(hlsnap_interrupt_cancel(hooked) && hlsnap_interrupt_cancel(hooked)); }
static void cancel_in_run(fake_cpu *cpu, hlsnap_abi_mailbox *m) {
    if (m->op == HLSNAP_ABI_OP_CALL && cpu->exit->kind == HLSNAP__EXIT_RETURN) CHECK(hlsnap_interrupt_cancel(hooked));
}
static void cancel_late(void) { /* a handle taken only now must work as well */
    hlsnap_interrupt *h = hlsnap_sandbox_get_interrupt(self);
    CHECK(hlsnap_interrupt_cancel(h));
    hlsnap_interrupt_release(h);
}

static void cancels(void) {
    hlsnap_interrupt *h;
    hlsnap_snapshot *s;
    pthread_t thread;
    long runs;
    int i;
    self = start(GUEST_ALL, 16);
    h = hooked = hlsnap_sandbox_get_interrupt(self);
    CHECK_EQ(hlsnap_sandbox_snapshot(self, &s, &err), HLSNAP_OK);
    CHECK(!hlsnap_interrupt_cancel(h)); /* before: no effect, now or later */
    CHECK_EQ(call0(self, "nop"), HLSNAP_OK);
    for (i = 0; i < 20; i++) {
        hv.spinning = 0;
        CHECK_EQ(pthread_create(&thread, NULL, cancel_when_spinning, h), 0);
        CHECK_EQ(call0(self, "spin"), HLSNAP_ERR_CANCELLED);
        pthread_join(thread, NULL);
        CHECK_EQ(hlsnap_sandbox_get_state(self), HLSNAP_POISONED);
        CHECK(!hlsnap_interrupt_cancel(h)); /* after */
        CHECK_EQ(hlsnap_sandbox_restore(self, s, &err), HLSNAP_OK);
        CHECK_EQ(call0(self, "nop"), HLSNAP_OK);
    }
    on_hook = cancel_hooked; /* in a host function: nothing of the guest runs after it */
    runs = hv.calls[FAKE_RUN];
    CHECK_EQ(call0(self, "hook"), HLSNAP_ERR_CANCELLED);
    CHECK_EQ(hv.calls[FAKE_RUN], runs + 1);
    CHECK_EQ(hlsnap_sandbox_restore(self, s, &err), HLSNAP_OK);
    hv.hook = cancel_in_run; /* answered true, so it shows, even when the guest was done */
    CHECK_EQ(call0(self, "nop"), HLSNAP_ERR_CANCELLED);
    CHECK_EQ(hlsnap_sandbox_call(self, "fail", HLSNAP_ARGS(hlsnap_i32(1), hlsnap_str("")), NULL, &err), HLSNAP_ERR_STATE);
    hv.hook = NULL;
    hlsnap_interrupt_release(h);
    on_hook = cancel_late;
    CHECK_EQ(hlsnap_sandbox_restore(self, s, &err), HLSNAP_OK);
    CHECK_EQ(call0(self, "hook"), HLSNAP_ERR_CANCELLED);
    h = hlsnap_sandbox_get_interrupt(self);
    hlsnap_sandbox_destroy(self);
    CHECK(!hlsnap_interrupt_cancel(h));
    hlsnap_interrupt_release(h);
    hlsnap_snapshot_release(s);
}

static uint64_t seen_deadlines[HLSNAP__CLOCKS], seen_nows[HLSNAP__CLOCKS];
static void see_deadline(void) {
    memcpy(seen_deadlines, self->shell->deadlines, sizeof(seen_deadlines));
    seen_nows[HLSNAP__WALL] = hlsnap__now_ns();
    seen_nows[HLSNAP__CPU] = hlsnap__clock_ns(HLSNAP__CPU);
}
static void sleep_5ms(void) {
    static const struct timespec moment = {0, 5000000};
    nanosleep(&moment, NULL);
}

static void burn_5ms(void) {
    const uint64_t from = hlsnap__clock_ns(HLSNAP__CPU);
    while (hlsnap__clock_ns(HLSNAP__CPU) - from < 5000000) { }
}

/* The invocation's user: what host functions and the log see; calls of different ones share no entry. */
static int trace[6];
static void *logged[6];
static size_t num_logged;
static void mute_first(int level, const char *text, size_t size, void *user) {
    (void)level, (void)text, (void)size;
    ++*(int *)user;
    hlsnap_sandbox_set_log(self, 0, NULL, NULL);
}
static void mute(void) { hlsnap_sandbox_set_log(self, 0, NULL, NULL); }
static void count_line(int level, const char *text, size_t size, void *user) { (void)level, (void)text, (void)size, ++*(int *)user; }

/* Who takes the log away while output waits to be told, in a line's own call or in a host function, is told no more. */
static void muted_meanwhile(void) {
    hlsnap_invocation calls[2];
    hlsnap_value args[2];
    int lines = 0;
    self = start(GUEST_ALL, 16);
    memset(calls, 0, sizeof(calls));
    hlsnap_sandbox_set_log(self, 4, mute_first, &lines);
    args[0] = hlsnap_i32(1), args[1] = hlsnap_bytes("one\ntwo\nthree\nhalf", 18);
    CHECK_EQ(hlsnap_sandbox_call(self, "output", args, 2, NULL, &err), HLSNAP_OK);
    CHECK_EQ(lines, 1);
    hlsnap_sandbox_set_log(self, 4, count_line, &lines);
    CHECK_EQ(hlsnap_sandbox_find(self, "output", NULL, &calls[0].target, &err), HLSNAP_OK);
    CHECK_EQ(hlsnap_sandbox_find(self, "hook", NULL, &calls[1].target, &err), HLSNAP_OK);
    args[1] = hlsnap_bytes("half a line", 11);
    calls[0].args = args, calls[0].num_args = 2;
    on_hook = mute;
    lines = 0;
    CHECK_EQ(hlsnap_sandbox_invoke(self, calls, 2, NULL, NULL, &err), HLSNAP_OK);
    CHECK_EQ(lines, 0);
    on_hook = NULL;
    hlsnap_sandbox_set_log(self, 4, count_line, &lines);
    CHECK_EQ(hlsnap_sandbox_invoke(self, calls, 2, NULL, NULL, &err), HLSNAP_OK);
    CHECK_EQ(lines, 1);
    hlsnap_sandbox_destroy(self);
}
static void log_user_of(int level, const char *text, size_t size, void *user) {
    (void)level, (void)text, (void)size, (void)user;
    if (num_logged < HLSNAP_COUNT(logged)) logged[num_logged++] = hlsnap_sandbox_get_user(self);
}
static void users(void) {
    hlsnap_invocation calls[6];
    size_t i;
    self = start(GUEST_ALL, 16);
    memset(calls, 0, sizeof(calls));
    for (i = 0; i < 6; i++) {
        CHECK_EQ(hlsnap_sandbox_find(self, "hook", NULL, &calls[i].target, &err), HLSNAP_OK);
        calls[i].user = i < 2 ? &trace[0] : i < 5 ? &trace[i] : NULL;
    }
    num_seen_users = 0;
    CHECK_EQ(hlsnap_sandbox_invoke(self, calls, 6, NULL, NULL, &err), HLSNAP_OK);
    CHECK_EQ(num_seen_users, 6);
    for (i = 0; i < 6; i++) CHECK(seen_users[i] == calls[i].user);
    CHECK(hlsnap_sandbox_get_user(self) == NULL && hlsnap_sandbox_get_user(NULL) == NULL);
    num_seen_users = 0;
    CHECK_EQ(call0(self, "hook"), HLSNAP_OK); /* by name */
    CHECK(num_seen_users == 1 && seen_users[0] == NULL);
    hlsnap_sandbox_set_log(self, 4, log_user_of, NULL);
    for (i = 0; i < 2; i++) {
        hlsnap_value args[2];
        args[0] = hlsnap_i32(1), args[1] = hlsnap_bytes("x", 1);
        CHECK_EQ(hlsnap_sandbox_find(self, "log", NULL, &calls[i].target, &err), HLSNAP_OK);
        calls[i].args = args, calls[i].num_args = 2, calls[i].user = &trace[i];
        num_logged = 0;
        CHECK_EQ(hlsnap_sandbox_invoke(self, &calls[i], 1, NULL, NULL, &err), HLSNAP_OK);
        CHECK(num_logged == 1 && logged[0] == &trace[i]);
        CHECK(hlsnap_sandbox_get_user(self) == NULL);
    }
    CHECK_EQ(hlsnap_sandbox_call(self, "poke", HLSNAP_ARGS(hlsnap_u64(8), hlsnap_bytes("x", 1)), NULL, &err), HLSNAP_ERR_FAULT);
    CHECK(hlsnap_sandbox_get_user(self) == NULL);
    hlsnap_sandbox_destroy(self);
}

/* The time limit of `hook` in a batch with another call, as the hypervisor sees it. */
static void batch_limits(hlsnap_sandbox *sb, uint64_t of_sandbox) {
    static const struct { uint64_t a, b, sum; } rows[] = { /* seconds; 0 = the sandbox's */
        {10, 20, 30}, {0, 20, 0}, {20, 0, 0}, {0, 0, 0}, {UINT64_MAX, 20, UINT64_MAX}};
    hlsnap_invocation calls[2];
    size_t i;
    memset(calls, 0, sizeof(calls));
    CHECK_EQ(hlsnap_sandbox_find(sb, "hook", NULL, &calls[0].target, &err), HLSNAP_OK);
    CHECK_EQ(hlsnap_sandbox_find(sb, "nop", NULL, &calls[1].target, &err), HLSNAP_OK);
    on_hook = see_deadline;
    for (i = 0; i < HLSNAP_COUNT(rows); i++) {
        const uint64_t s = 1000000000u, a = rows[i].a ? rows[i].a : of_sandbox, b = rows[i].b ? rows[i].b : of_sandbox;
        uint32_t k;
        for (k = 0; k < HLSNAP__CLOCKS; k++) { /* each by itself, beside an hour of the other */
            const uint64_t first = rows[i].a == UINT64_MAX ? UINT64_MAX : rows[i].a * s, second = rows[i].b * s;
            calls[0].timeout_ns = k == HLSNAP__WALL ? first : 3600 * s, calls[1].timeout_ns = k == HLSNAP__WALL ? second : 3600 * s;
            calls[0].cpu_ns = k == HLSNAP__CPU ? first : 3600 * s, calls[1].cpu_ns = k == HLSNAP__CPU ? second : 3600 * s;
            CHECK_EQ(hlsnap_sandbox_invoke(sb, calls, 2, NULL, NULL, &err), HLSNAP_OK);
            if (!a || !b) CHECK_EQ(seen_deadlines[k], 0);
            else if (a == UINT64_MAX) CHECK(seen_deadlines[k] == UINT64_MAX);
            else CHECK(seen_deadlines[k] - seen_nows[k] <= (a + b) * s && seen_deadlines[k] - seen_nows[k] > (a + b - 5) * s);
            CHECK(seen_deadlines[!k] - seen_nows[!k] <= 7200 * s && seen_deadlines[!k] - seen_nows[!k] > 7195 * s);
        }
    }
}

static void time_limits(void) {
    const hlsnap_guest_desc g = fake_guest(GUEST_ALL, 16);
    hlsnap_sandbox_desc d = host_desc();
    hlsnap_snapshot *s;
    uint64_t from;
    self = start(GUEST_ALL, 16);
    batch_limits(self, 0);
    hlsnap_sandbox_destroy(self);
    d.timeout_ns = d.cpu_timeout_ns = 7000000000u;
    CHECK_EQ(hlsnap_sandbox_create(&g, &d, &self, &err), HLSNAP_OK);
    batch_limits(self, 7);
    CHECK_EQ(hlsnap_sandbox_snapshot(self, &s, &err), HLSNAP_OK);
    hlsnap_sandbox_destroy(self);
    d.timeout_ns = 0;
    d.cpu_timeout_ns = 2000000;
    CHECK_EQ(hlsnap_sandbox_create_from(s, &d, &self, &err), HLSNAP_OK);
    from = hlsnap__clock_ns(HLSNAP__CPU);
    CHECK_EQ(call0(self, "spin"), HLSNAP_ERR_TIMEOUT);
    CHECK(hlsnap__clock_ns(HLSNAP__CPU) - from >= 2000000);
    CHECK_STR(err.msg, "spin: the CPU time limit of 2000000 ns ran out");
    CHECK_EQ(hlsnap_sandbox_restore(self, s, &err), HLSNAP_OK);
    on_hook = sleep_5ms; /* waiting costs no processor */
    CHECK_EQ(call0(self, "hook"), HLSNAP_OK);
    on_hook = burn_5ms;
    CHECK_EQ(call0(self, "hook"), HLSNAP_ERR_TIMEOUT);
    hlsnap_sandbox_destroy(self);
    d.timeout_ns = 2000000;
    d.cpu_timeout_ns = 3600ull * 1000000000u;
    CHECK_EQ(hlsnap_sandbox_create_from(s, &d, &self, &err), HLSNAP_OK);
    from = hlsnap__now_ns();
    CHECK_EQ(call0(self, "spin"), HLSNAP_ERR_TIMEOUT);
    CHECK(hlsnap__now_ns() - from >= 2000000);
    CHECK_STR(err.msg, "spin: the time limit of 2000000 ns ran out");
    CHECK_EQ(hlsnap_sandbox_get_state(self), HLSNAP_POISONED);
    CHECK_EQ(hlsnap_sandbox_restore(self, s, &err), HLSNAP_OK);
    CHECK_EQ(call0(self, "nop"), HLSNAP_OK);
    on_hook = sleep_5ms; /* host functions are included */
    CHECK_EQ(call0(self, "hook"), HLSNAP_ERR_TIMEOUT);
    CHECK_EQ(hlsnap_sandbox_get_state(self), HLSNAP_POISONED);
    hlsnap_sandbox_destroy(self);
    hlsnap_snapshot_release(s);
}

/* ---- what messages say: the offending values, and what would do ---- */

static void messages_of_limits(void) {
    static const uint8_t data[65536];
    hlsnap_sandbox *sb = start(GUEST_ALL, 16);
    const uint32_t head = sizeof(hlsnap_abi_message) + sizeof(hlsnap_abi_value), out_most = HALF - HLSNAP__RESERVE_OUT, in = HALF - HLSNAP__RESERVE_IN;
    const hlsnap_value two[2] = {hlsnap_bytes(data, 8), hlsnap_bytes(data, in - head + 1)};
    hlsnap_invocation calls[3];
    hlsnap_snapshot *s;
    char want[200];
    memset(calls, 0, sizeof(calls));
    CHECK_EQ(hlsnap_sandbox_snapshot(sb, &s, &err), HLSNAP_OK);
    CHECK_EQ(hlsnap_sandbox_call(sb, "big", HLSNAP_ARGS(hlsnap_u32(out_most - head + 1)), NULL, &err), HLSNAP_ERR_LIMIT);
    snprintf(want, sizeof(want), "big: the function returned HLSNAP_ERR_LIMIT: its result takes %u bytes, %u fit (mailbox_size=65536)",
             out_most + 8, out_most);
    CHECK_STR(err.msg, want);
    CHECK_EQ(hlsnap_sandbox_call(sb, "fmt_big", HLSNAP_ARGS(hlsnap_i32((int32_t)(out_most - head))), NULL, &err), HLSNAP_ERR_LIMIT);
    CHECK(strncmp(err.msg, "fmt_", 4) == 0 && strcmp(err.msg + 4, want) == 0);
    CHECK_EQ(hlsnap_sandbox_call(sb, "code", HLSNAP_ARGS(hlsnap_i32(HLSNAP_ERR_LIMIT)), NULL, &err), HLSNAP_ERR_LIMIT);
    CHECK_STR(err.msg, "code: the function returned HLSNAP_ERR_LIMIT (mailbox_size=65536)");
    CHECK_EQ(hlsnap_sandbox_call(sb, "e_bytes", &two[1], 1, NULL, &err), HLSNAP_ERR_LIMIT);
    snprintf(want, sizeof(want), "the arguments of e_bytes take %u bytes; the guest's heap has no room for them (heap_size=65536), nor has the "
                                 "mailbox (mailbox_size=65536)", (in + 8 + 7) / 8 * 8);
    CHECK_STR(err.msg, want);
    memset(calls, 0, sizeof(calls));
    CHECK_EQ(hlsnap_sandbox_find(sb, "nop", NULL, &calls[0].target, &err), HLSNAP_OK);
    CHECK_EQ(hlsnap_sandbox_find(sb, "spin", NULL, &calls[1].target, &err), HLSNAP_OK);
    calls[2] = calls[0];
    calls[0].timeout_ns = calls[1].timeout_ns = calls[2].timeout_ns = 1000000;
    CHECK_EQ(hlsnap_sandbox_invoke(sb, &calls[1], 1, NULL, NULL, &err), HLSNAP_ERR_TIMEOUT);
    CHECK_STR(err.msg, "spin: the time limit of 1000000 ns ran out");
    CHECK_EQ(hlsnap_sandbox_restore(sb, s, &err), HLSNAP_OK);
    CHECK_EQ(hlsnap_sandbox_invoke(sb, calls, 3, NULL, NULL, &err), HLSNAP_ERR_TIMEOUT);
    CHECK_STR(err.msg, "nop or one of the 2 behind it: the time limit of 3000000 ns ran out");
    CHECK_EQ(hlsnap_sandbox_restore(sb, s, &err), HLSNAP_OK);
    CHECK_EQ(call0(sb, "outer"), HLSNAP_ERR_TIMEOUT);
    CHECK_STR(err.msg, "outer: the call around this one ran out of time, or was cancelled");
    hlsnap_sandbox_destroy(sb);
    hlsnap_snapshot_release(s);
}

static void messages_of_descs(void) {
    static const struct { uint64_t heap, stack, mailbox; const char *msg; } rows[] = {
        {(16ull << 30) + 4096, 0, 0, "guest desc: heap_size=17179873280 is not in 4096..17179869184"},
        {0, 2ull << 30, 0, "guest desc: stack_size=2147483648 is not in 4096..1073741824"},
        {0, 0, 4096, "guest desc: mailbox_size=4096 is not in 8192..268435456"},
        {4096, 4096, (256u << 20) + 4096, "guest desc: mailbox_size=268439552 is not in 8192..268435456"},
        {0, 0, 12287, "guest desc: mailbox_size=12287 is not a multiple of 4096"},
        {1, 0, 0, "guest desc: heap_size=1 is not a multiple of 4096"}};
    hlsnap_guest_desc g = fake_guest(GUEST_ALL, 16);
    const hlsnap_function one[] = {{"input", "i32(i32)", g_twice, NULL}, {"b.i32", "u64(str)", g_twice, NULL}};
    hlsnap_sandbox *sb = start(GUEST_ALL, 16);
    hlsnap_snapshot *s;
    size_t i;
    for (i = 0; i < HLSNAP_COUNT(rows); i++) {
        g.heap_size = rows[i].heap, g.stack_size = rows[i].stack, g.mailbox_size = rows[i].mailbox;
        CHECK_EQ(hlsnap_snapshot_from_guest(&g, &s, &err), HLSNAP_ERR_ARG);
        CHECK_STR(err.msg, rows[i].msg);
    }
    CHECK_EQ(hlsnap_sandbox_bind(sb, one, 2, &err), HLSNAP_ERR_CONTRACT);
    CHECK(strncmp(err.msg, "host functions: ", 16) == 0 && strstr(err.msg, " is missing; ") && !strstr(err.msg, "  "));
    CHECK(err.msg[strlen(err.msg) - 1] != ';');
    memset(&g, 0, sizeof(g));
    g.path = "/nowhere/mod.elf";
    CHECK_EQ(hlsnap_snapshot_from_guest(&g, &s, &err), HLSNAP_ERR_OS);
    CHECK_STR(err.msg, "cannot open /nowhere/mod.elf: no such file or directory (errno 2)");
    CHECK_STR(hlsnap__errno_text(EACCES), "permission denied");
    CHECK_STR(hlsnap__errno_text(-1), "failed");
    hlsnap_sandbox_destroy(sb);
}

/* A log line of init may end the sandbox that runs it. */
static void destroyed_by_init(void) {
    const hlsnap_guest_desc g = fake_guest(GUEST_ALL, 16);
    hlsnap_sandbox_desc d = host_desc();
    hlsnap_snapshot *pre;
    d.log = destroy_log;
    CHECK_EQ(hlsnap_snapshot_from_guest(&g, &pre, &err), HLSNAP_OK);
    CHECK_EQ(hlsnap_sandbox_create(&g, &d, &self, &err), HLSNAP_OK);
    hv.hook = leave_init;
    init_leaves = HLSNAP__EXIT_CALL;
    init_function = HLSNAP_ABI_FN_LOG;
    CHECK_EQ(hlsnap_sandbox_restore(self, pre, &err), HLSNAP_ERR_CANCELLED);
    CHECK_STR(err.msg, "the sandbox was destroyed during the call");
    hlsnap_snapshot_release(pre);
}

/* An ordinary program as a guest: its first instructions fault. What has the note is a guest that fails. */
static void messages_of_init(void) {
    static const char hint[] = "no hlsnap guest? its ELF has no hlsnap note (a Linux program needs guest.runtime), and its init failed: ";
    const hlsnap_guest_desc g = fake_guest(GUEST_ALL, 16);
    hlsnap_sandbox_desc d = host_desc();
    hlsnap_sandbox *sb;
    hlsnap_snapshot *pre;
    CHECK_EQ(hlsnap_snapshot_from_guest(&g, &pre, &err), HLSNAP_OK);
    CHECK(!pre->guest->noted);
    hv.hook = leave_init;
    d.timeout_ns = 1000000;
    init_leaves = HLSNAP__EXIT_FAULT;
    CHECK_EQ(hlsnap_sandbox_create_from(pre, &d, &sb, &err), HLSNAP_ERR_FAULT);
    CHECK(strncmp(err.msg, hint, sizeof(hint) - 1) == 0 && strncmp(err.msg + sizeof(hint) - 1, "guest fault: ", 13) == 0 && err.vector == 13);
    init_leaves = HLSNAP__EXIT_PROTOCOL;
    CHECK_EQ(hlsnap_sandbox_create_from(pre, &d, &sb, &err), P);
    CHECK(strncmp(err.msg, hint, sizeof(hint) - 1) == 0);
    CHECK_EQ(hlsnap_sandbox_create_from(pre, &d, &sb, NULL), P);
    pre->guest->noted = true;
    CHECK_EQ(hlsnap_sandbox_create_from(pre, &d, &sb, &err), P);
    CHECK(strncmp(err.msg, "the guest left the VM by ", 25) == 0);
    init_leaves = HLSNAP__EXIT_KICKED;
    CHECK_EQ(hlsnap_sandbox_create_from(pre, &d, &sb, &err), HLSNAP_ERR_TIMEOUT);
    CHECK_STR(err.msg, "init: the time limit of 1000000 ns ran out");
    hlsnap_snapshot_release(pre);
}

/* ---- what has no room in the mailbox ---- */

/* References: to all that the guest has, and to nothing else. */
static void references(void) {
    static const uint64_t most = 64 * 4096;
    hlsnap_sandbox *sb = start(GUEST_ALL, 64);
    const uint64_t heap = region_gva(sb, HLSNAP__HEAP), text = region_gva(sb, HLSNAP__TEXT), end = heap + most;
    const struct { const char *name; uint64_t gva, n; hlsnap_result code; } rows[] = {
        {"result", heap, most, HLSNAP_OK}, {"result", heap + 1, most - 1, HLSNAP_OK}, {"result", heap + 5, 0, HLSNAP_OK}, {"result", text, 100, HLSNAP_OK},
        {"result", end - 1, 1, HLSNAP_OK}, {"result", heap, most + 1, P}, {"result", heap + 1, most, P}, {"result", end, 1, P}, {"result", 0, 1, P},
        {"result", 0, 0, HLSNAP_OK}, {"result", UINT64_MAX, 1, P}, {"result", UINT64_MAX - 7, 16, P}, {"result", heap, UINT64_MAX, P},
        {"result", heap, 1ull << 32, P}, {"result", 0x100000, 64, P}, {"result", HLSNAP__MAPS_GVA, 8, P}, {"result_str", heap + 8192, 10, P} /* zeros */,
        {"result_str", heap, 8, HLSNAP_OK}, {"result_str", heap, 9, P},
        {"refer", heap, most, HLSNAP_ERR_LIMIT}, {"refer", heap + 1, most, P}, {"refer", end - 8, 8, HLSNAP_OK}, {"refer", 0, 5, P}, {"refer", heap, UINT64_MAX - 3, P},
        {"refer_twice", heap, most / 2, HLSNAP_OK}, {"refer_twice", heap, most / 2 + 4096, P}, /* no more than the heap has in all */
        {"give", heap, most, HLSNAP_OK}, {"give", heap + 8, 8, HLSNAP_OK}, {"give", heap, most + 1, P}, {"give", UINT64_MAX, UINT64_MAX, P}, {"give", 1, 0, HLSNAP_OK},
        {"take", heap, 8, P}, {"take", 0, 0, P}, {"answer", heap, 0, HLSNAP_OK}, {"answer", end - 64, 0, P}, {"answer", text, 0, P}, {"answer", 1, 0, P},
        {"answer", heap, 1, P}, {"answer", UINT64_MAX - 15, 0, P}, {"answer", region_gva(sb, HLSNAP__STACK), 0, P}};
    hlsnap_snapshot *s;
    size_t i;
    CHECK_EQ(hlsnap_sandbox_write(sb, heap, "a string\0", 10, &err), HLSNAP_OK);
    CHECK_EQ(hlsnap_sandbox_snapshot(sb, &s, &err), HLSNAP_OK);
    for (i = 0; i < HLSNAP_COUNT(rows); i++) {
        const hlsnap_value v[3] = {hlsnap_u64(rows[i].gva), hlsnap_u64(rows[i].n), strcmp(rows[i].name, "refer") != 0 ? hlsnap_u64(rows[i].n) : hlsnap_u32(1)};
        const hlsnap_value answer[3] = {hlsnap_u32(100000), hlsnap_u64(rows[i].gva), hlsnap_u64(rows[i].n)};
        const bool is_answer = strcmp(rows[i].name, "answer") == 0;
        const size_t num = is_answer || strcmp(rows[i].name, "refer") == 0 || strcmp(rows[i].name, "give") == 0 ? 3 : 2;
        hlsnap_value out = hlsnap__value(HLSNAP_VOID);
        const hlsnap_result r = hlsnap_sandbox_call(sb, rows[i].name, is_answer ? answer : v, num, &out, &err),
                            code = rows[i].code == HLSNAP_ERR_LIMIT ? HLSNAP_OK : rows[i].code;
        if (!CHECK_EQ(r, code)) printf("# row %zu: %s 0x%llx, %llu: %s\n", i, rows[i].name, (unsigned long long)rows[i].gva, (unsigned long long)rows[i].n, err.msg);
        if (!r && strncmp(rows[i].name, "re", 2) == 0 && rows[i].name[2] == 's') CHECK_EQ(out.size, rows[i].n);
        if (!r && rows[i].gva == heap && rows[i].name[0] == 'r' && rows[i].name[2] == 's') CHECK(memcmp(rows[i].name[6] ? (const void *)out.str : (const void *)out.bytes, "a string", 7) == 0);
        if (!r && is_answer) CHECK(out.size == 100000 && out.bytes[99999] == (uint8_t)(99999 * 31));
        CHECK(sb->response.size == 0 || r);
        CHECK_EQ(hlsnap_sandbox_restore(sb, s, &err), HLSNAP_OK);
        CHECK_EQ(call0(sb, "nop"), HLSNAP_OK);
    }
    hlsnap_snapshot_release(s);
    hlsnap_sandbox_destroy(sb);
}

/* The same of memory in a map, which may be larger than the heap; what the host would hold of it may not. */
static void references_to_maps(void) {
    static uint8_t data[1 << 19] __attribute__((__aligned__(4096)));
    const uint64_t most = 64 * 4096, at = HLSNAP__MAPS_GVA, end = at + sizeof(data);
    const struct { const char *name; uint64_t gva, n; hlsnap_result code; } rows[] = {
        {"result", at + 8, 100000, HLSNAP_OK}, {"result", end - 100, 100, HLSNAP_OK}, {"result", end - 100, 101, P}, {"result", at, most + 1, P},
        {"give", at, most, HLSNAP_OK}, {"give", at, most + 8, P}, {"give", end - 8, 8, HLSNAP_OK}, {"give", end - 8, 16, P}, {"give", at, sizeof(data), P}};
    hlsnap_sandbox *sb = start(GUEST_ALL, 64);
    hlsnap_map map = HLSNAP_ZERO;
    hlsnap_snapshot *s;
    size_t i;
    map.name = "data", map.data = data, map.size = sizeof(data), map.mode = HLSNAP_MAP_READ;
    CHECK_EQ(hlsnap_sandbox_map(sb, &map, &err), HLSNAP_OK);
    CHECK_EQ(hlsnap_sandbox_snapshot(sb, &s, &err), HLSNAP_OK);
    for (i = 0; i < HLSNAP_COUNT(rows); i++) {
        const hlsnap_value v[3] = {hlsnap_u64(rows[i].gva), hlsnap_u64(rows[i].n), hlsnap_u64(rows[i].n)};
        hlsnap_value out = hlsnap__value(HLSNAP_VOID);
        const hlsnap_result r = hlsnap_sandbox_call(sb, rows[i].name, v, rows[i].name[0] == 'g' ? 3 : 2, &out, &err);
        if (!CHECK_EQ(r, rows[i].code)) printf("# row %zu: %s\n", i, err.msg);
        if (!r) CHECK_EQ(out.size, rows[i].n);
        CHECK_EQ(hlsnap_sandbox_restore(sb, s, &err), HLSNAP_OK);
    }
    hlsnap_snapshot_release(s);
    hlsnap_sandbox_destroy(sb);
}

/* The guest's runtime says nothing where nobody listens: it is told at once, not by the next restore. */
static void heard(int32_t fd, const void *bytes, size_t n, void *user) { (void)fd, (void)bytes, (void)n, (void)user; }
static uint32_t options_told(const hlsnap_sandbox *sb) {
    const uint64_t at = region_gva((hlsnap_sandbox *)hlsnap__unconst(sb), HLSNAP__IDENTITY);
    uint32_t options;
    memcpy(&options, hlsnap__memory_at(&sb->memory, hlsnap__gva_page(&sb->memory.layout, at)) + HLSNAP_ABI_IDENTITY_OFFSET + offsetof(hlsnap_abi_identity, options),
           sizeof(options));
    return options & HLSNAP_ABI_OPTION_OUTPUT;
}
static void told_who_listens(void) {
    hlsnap_sandbox *sb = start(GUEST_ALL, 64);
    hlsnap_sandbox_set_log(sb, 0, NULL, NULL);
    hlsnap_sandbox_set_output(sb, NULL, NULL);
    CHECK_EQ(options_told(sb), 0);
    hlsnap_sandbox_set_output(sb, heard, NULL);
    CHECK_EQ(options_told(sb), HLSNAP_ABI_OPTION_OUTPUT);
    hlsnap_sandbox_set_output(sb, NULL, NULL);
    CHECK_EQ(options_told(sb), 0);
    hlsnap_sandbox_destroy(sb);
}

/* What a guest may only read is read-only for the VM, whatever the page tables say; what it may write is not. */
static void slots_of_maps(void) {
    static const struct { hlsnap_map_mode mode; bool capture, readonly; } rows[] = {
        {HLSNAP_MAP_READ, false, true}, {HLSNAP_MAP_READ, true, true}, {HLSNAP_MAP_PRIVATE, false, false}, {HLSNAP_MAP_SHARED, false, false}};
    static uint8_t data[4096] __attribute__((__aligned__(4096)));
    hlsnap_sandbox *sb = start(GUEST_ALL, 64);
    size_t i;
    for (i = 0; i < HLSNAP_COUNT(rows); i++) {
        hlsnap_map map = HLSNAP_ZERO;
        map.name = "data", map.data = data, map.size = sizeof(data), map.mode = rows[i].mode, map.capture = rows[i].capture;
        CHECK_EQ(hlsnap_sandbox_map(sb, &map, &err), HLSNAP_OK);
        CHECK_EQ(sb->shell->maps[1].size, sizeof(data));
        CHECK_EQ(sb->shell->maps[1].readonly, rows[i].readonly);
        CHECK_EQ(hlsnap_sandbox_unmap(sb, "data", &err), HLSNAP_OK);
    }
    hlsnap_sandbox_destroy(sb);
}

/* A response that was left has gone with its call, and with the next request. */
static void responses_left(void) {
    hlsnap_sandbox *sb = start(GUEST_ALL, 64);
    const uint64_t heap = region_gva(sb, HLSNAP__HEAP);
    const hlsnap_value left[3] = {hlsnap_u32(100000), hlsnap_u64(2), hlsnap_u64(0)};
    hlsnap_value out = hlsnap__value(HLSNAP_VOID);
    uint64_t size = 0;
    CHECK_EQ(hlsnap_sandbox_call(sb, "answer", left, 3, &out, &err), HLSNAP_OK);
    if (CHECK_EQ(out.size, 8)) memcpy(&size, out.bytes, 8);
    CHECK(size > 100000);
    CHECK_EQ(hlsnap_sandbox_call(sb, "take", HLSNAP_ARGS(hlsnap_u64(heap), hlsnap_u64(size)), NULL, &err), P);
    hlsnap_sandbox_destroy(sb);
}

/* Says another size of what it gave; gives nothing; gives twice. */
static void given_results(void) {
    hlsnap_sandbox *sb = start(GUEST_ALL, 64);
    const uint64_t heap = region_gva(sb, HLSNAP__HEAP);
    hlsnap_invocation calls[3];
    hlsnap_value args[9], outs[3], out;
    hlsnap_snapshot *s;
    size_t i, done;
    CHECK_EQ(hlsnap_sandbox_snapshot(sb, &s, &err), HLSNAP_OK);
    CHECK_EQ(hlsnap_sandbox_call(sb, "give", HLSNAP_ARGS(hlsnap_u64(heap), hlsnap_u64(50000), hlsnap_u64(49999)), &out, &err), HLSNAP_ERR_PROTOCOL);
    CHECK_EQ(hlsnap_sandbox_restore(sb, s, &err), HLSNAP_OK);
    CHECK_EQ(hlsnap_sandbox_call(sb, "give", HLSNAP_ARGS(hlsnap_u64(0), hlsnap_u64(0), hlsnap_u64(50000)), &out, &err), HLSNAP_ERR_PROTOCOL);
    CHECK_EQ(hlsnap_sandbox_restore(sb, s, &err), HLSNAP_OK);
    memset(calls, 0, sizeof(calls));
    for (i = 0; i < 3; i++) { /* several of one invoke stand beside each other */
        uint8_t mark = (uint8_t)(i + 1);
        CHECK_EQ(hlsnap_sandbox_find(sb, "give", NULL, &calls[i].target, &err), HLSNAP_OK);
        CHECK_EQ(hlsnap_sandbox_write(sb, heap + i * 40000, &mark, 1, &err), HLSNAP_OK);
        args[3 * i] = hlsnap_u64(heap + i * 40000);
        args[3 * i + 1] = args[3 * i + 2] = hlsnap_u64(40000 + i);
        calls[i].args = &args[3 * i];
        calls[i].num_args = 3;
    }
    CHECK_EQ(hlsnap_sandbox_invoke(sb, calls, 3, outs, &done, &err), HLSNAP_OK);
    CHECK_EQ(done, 3);
    for (i = 0; i < done; i++) CHECK(outs[i].size == 40000 + i && outs[i].bytes[0] == i + 1);
    hlsnap_snapshot_release(s);
    hlsnap_sandbox_destroy(sb);
}

/* A call's arguments, in memory that the guest names: its own, or not. */
static void room_for_calls(void) {
    static uint8_t data[100000];
    hlsnap_sandbox *sb = start(GUEST_ALL, 64);
    const uint64_t heap = region_gva(sb, HLSNAP__HEAP), size = sizeof(data) + 8 + 32;
    const struct { uint64_t at; hlsnap_result code; } rows[] = {
        {heap, HLSNAP_OK}, {heap + 16, HLSNAP_OK}, {heap + 64 * 4096 - (size + 15) / 16 * 16, HLSNAP_OK}, {heap + 8, P}, {heap + 64 * 4096 - 16, P},
        {16, P}, {region_gva(sb, HLSNAP__MAILBOX), P}, {UINT64_MAX - 15, P}, {0, HLSNAP_ERR_LIMIT}, {HLSNAP__MAPS_GVA, P}};
    hlsnap_snapshot *s;
    size_t i;
    CHECK_EQ(hlsnap_sandbox_snapshot(sb, &s, &err), HLSNAP_OK);
    for (i = 0; i < HLSNAP_COUNT(rows); i++) {
        hlsnap_value v[2] = {hlsnap_u64(i == 2 ? heap : heap + 150000), hlsnap_bytes(data, sizeof(data))}; /* beside that */
        memset(data, (int)i + 1, sizeof(data));
        hv.room = rows[i].at;
        if (!CHECK_EQ(hlsnap_sandbox_call(sb, "poke", v, 2, NULL, &err), rows[i].code)) printf("# row %zu: %s\n", i, err.msg);
        if (rows[i].code == HLSNAP_OK && i != 2) CHECK_EQ(hlsnap_sandbox_get_state(sb), HLSNAP_READY);
        if (rows[i].code == HLSNAP_ERR_LIMIT) CHECK_EQ(hlsnap_sandbox_get_state(sb), HLSNAP_READY);
        hv.room = 0;
        CHECK_EQ(hlsnap_sandbox_restore(sb, s, &err), HLSNAP_OK);
        CHECK_EQ(call0(sb, "nop"), HLSNAP_OK);
    }
    CHECK_EQ(hv.bad, 0);
    hlsnap_snapshot_release(s);
    hlsnap_sandbox_destroy(sb);
}


#define TESTS_CALLS(X) \
    X(batches) X(heap_and_stack) X(batches_fail) X(failures) X(failure_texts) X(hostile_results) X(hostile_requests) X(hostile_scribbles) \
    X(hostile_flips) X(hostile_double_reads) X(hostile_init) X(hostile_lists) X(init_misbehaves) X(faults) X(exits) \
    X(log_levels) X(log_changes) X(log_text) X(output_lines_text) X(output_changes) X(clock_is_asked_for) X(cancels) \
    X(time_limits) X(users) X(muted_meanwhile) X(messages_of_limits) X(references) X(references_to_maps) X(slots_of_maps) X(told_who_listens) X(responses_left) X(given_results) X(room_for_calls) X(messages_of_descs) X(messages_of_init) X(destroyed_by_init)

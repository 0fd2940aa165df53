/* guest_fake.h - the guests of test_core.c and test_oom.c, and the fixture around them: programs for fake.h's runtime. */
#ifndef GUEST_FAKE_H
#define GUEST_FAKE_H
#include "fake.h"

/* ---- exports that run to their end: plain functions, the same shape as host functions ---- */

#define FN(name) __attribute__((unused)) static hlsnap_result name(hlsnap_call *call, void *user)
#define ARG(i) hlsnap_call_arg(call, i)

FN(g_nop) { return (void)call, (void)user, HLSNAP_OK; }
FN(g_echo) { return (void)user, hlsnap_call_return(call, ARG(0)); }
FN(g_twice) { return (void)user, hlsnap_call_return(call, hlsnap_i32(2 * ARG(0).as.i32)); }
FN(g_sum) {
    int64_t sum = 0;
    size_t i;
    for (i = 0; i < HLSNAP_MAX_ARGS; i++) sum = sum * 3 + ARG(i).as.i64;
    return (void)user, hlsnap_call_return(call, hlsnap_i64(sum));
}
FN(g_fail) { return (void)user, hlsnap_call_fail(call, ARG(0).as.i32, ARG(1).str); }
FN(g_code) { return (void)user, (hlsnap_result)ARG(0).as.i32; }
FN(g_beyond) { return (void)user, hlsnap_call_return(call, ARG(1)), HLSNAP_OK; }
FN(g_wrong) { return (void)user, hlsnap_call_return(call, hlsnap_str("no i32")); }
FN(g_inner_nul) {
    hlsnap_value v = hlsnap_str("a");
    v.str = "a\0b";
    v.size = 3;
    return (void)user, hlsnap_call_return(call, v);
}
FN(g_null) { return (void)user, hlsnap_call_fail(call, 3, NULL); }
FN(g_last) { return (void)user, hlsnap_call_return(call, hlsnap_i32(1)), hlsnap_call_return(call, hlsnap_i32(2)); }
FN(g_fmt) { return (void)user, hlsnap_call_return_fmt(call, "<%d|%s>", ARG(0).as.i32, "text"); }
FN(g_fmt_nul) { return (void)user, hlsnap_call_return_fmt(call, "a%cb", 0); }
FN(g_fmt_i32) { return (void)user, hlsnap_call_return_fmt(call, "no i32"); }
FN(g_fmt_big) { return (void)user, hlsnap_call_return_fmt(call, "%*d", ARG(0).as.i32, 1); }
/* Reserves, writes all of it, and returns a part: 0 = n bytes of 'a'..; 1 = a NUL among them; 2 = returns another result behind it;
   3 = gives nothing; 4 = reserves twice; 5 = more than there is, first; 6 = the same after it has failed; 7, 8 = too much, then a short
   result, by return and by return_fmt; 9 = a result that is too large, then a short one. */
FN(g_reserve) {
    const uint32_t n = ARG(0).as.u32, used = ARG(1).as.u32, how = ARG(2).as.u32;
    uint8_t *p = (uint8_t *)hlsnap_call_reserve(call, how == 4 ? 0 : how == 5 ? 1u << 30 : n);
    uint32_t i;
    (void)user;
    if (how >= 4) p = (uint8_t *)hlsnap_call_reserve(call, n);
    for (i = 0; p && i < n; i++) p[i] = (uint8_t)('a' + i % 26);
    if (how == 7) return hlsnap_call_reserve(call, 1u << 30) ? HLSNAP_ERR_ARG : hlsnap_call_return(call, hlsnap_bytes("abc", 3));
    if (how == 8) return hlsnap_call_reserve(call, 1u << 30) ? HLSNAP_ERR_ARG : hlsnap_call_return_fmt(call, "%s", "abc");
    if (how == 9) return hlsnap_call_return(call, hlsnap_bytes(p, (size_t)1 << 40)) != HLSNAP_ERR_LIMIT ? HLSNAP_ERR_ARG : hlsnap_call_return(call, hlsnap_bytes("abc", 3));
    if (how == 6) return hlsnap_call_fail(call, 9, "no"), hlsnap_call_reserve(call, 1u << 30), hlsnap_call_reserve(call, n) ? HLSNAP_OK : HLSNAP_ERR_ARG;
    if (how == 1 && p) p[n / 2] = 0;
    if (how == 2) return hlsnap_call_return(call, hlsnap_str("another"));
    return how == 3 ? HLSNAP_OK : hlsnap_call_return_reserved(call, used);
}
FN(g_unreserved) { return (void)user, hlsnap_call_return_reserved(call, 0); }
FN(g_reserve_i32) { return (void)user, hlsnap_call_reserve(call, 4) ? HLSNAP_OK : hlsnap_call_return(call, hlsnap_i32(1)); }
FN(g_big) {
    static uint8_t data[1u << 20];
    uint32_t i, n = ARG(0).as.u32;
    for (i = 0; i < n && i < sizeof(data); i++) data[i] = (uint8_t)(i * 31);
    return (void)user, hlsnap_call_return(call, hlsnap_bytes(data, n));
}
FN(g_generation) { return hlsnap_call_return(call, hlsnap_u64(fake_identity((fake_cpu *)user)->generation)); }
FN(g_log_level) { return hlsnap_call_return(call, hlsnap_i32(fake_identity((fake_cpu *)user)->log_level)); }
FN(g_scratch) {
    fake_cpu *cpu = (fake_cpu *)user;
    const uint64_t old = cpu->scratch;
    cpu->scratch = ARG(0).as.u64;
    return hlsnap_call_return(call, hlsnap_u64(old));
}

/* ---- exports that leave the VM ---- */

enum { I_HOOK, I_I32, I_STR, I_BYTES, I_BEYOND, I_WRONG, I_NOTHING, I_CODE, I_FAIL, I_SUM, I_LARGE, I_TWO, NUM_IMPORTS };

static bool b_poke(fake_cpu *cpu) { /* void(u64 gva, bytes) */
    uint8_t *at = fake_at(cpu, cpu->args[0].as.u64, cpu->args[1].size, true);
    if (!at) return fake_fault(cpu, 14, FAKE_TEXT + 64, cpu->args[0].as.u64, 7);
    if (cpu->args[1].size) memcpy(at, cpu->args[1].bytes, cpu->args[1].size);
    return fake_return(cpu, hlsnap__value(HLSNAP_VOID));
}

static bool b_peek(fake_cpu *cpu) { /* u64(u64 gva) */
    const uint8_t *at = fake_at(cpu, cpu->args[0].as.u64, 8, false);
    return at ? fake_return(cpu, hlsnap_u64(hlsnap__get64(at))) : fake_fault(cpu, 14, FAKE_TEXT, cpu->args[0].as.u64, 5);
}

static bool b_dirty(fake_cpu *cpu) { /* void(u64 gva, u32 pages, u32 seed): the first word of each page */
    uint32_t i;
    for (i = 0; i < cpu->args[1].as.u32; i++) {
        uint8_t *at = fake_at(cpu, cpu->args[0].as.u64 + i * 4096ull, 8, true);
        if (!at) return fake_fault(cpu, 14, FAKE_TEXT, cpu->args[0].as.u64 + i * 4096ull, 7);
        hlsnap__put64(at, cpu->args[2].as.u32 + i * 0x100000001ull);
    }
    return fake_return(cpu, hlsnap__value(HLSNAP_VOID));
}

static bool b_fault(fake_cpu *cpu) { /* void(u32 vector, u64 rip, u64 cr2, u32 error code) */
    const hlsnap_value *v = cpu->args;
    return fake_fault(cpu, v[0].as.u32, v[1].as.u64, v[2].as.u64, v[3].as.u32);
}

static bool b_leave(fake_cpu *cpu) { /* void(u32 kind, u32 times): then returns after all */
    if (cpu->step == cpu->args[1].as.u32) return fake_return(cpu, hlsnap__value(HLSNAP_VOID));
    fake_leave(cpu, (hlsnap__exit_kind)cpu->args[0].as.u32, "a test");
    return false;
}

static bool b_outer(fake_cpu *cpu) { /* void(): kicked by the time limit of a call around this one */
    fake_leave(cpu, HLSNAP__EXIT_KICKED, "");
    cpu->exit->outer = true;
    return false;
}

static bool b_spin(fake_cpu *cpu) { /* void(): forever */
    __atomic_store_n(&cpu->hv->spinning, 1, __ATOMIC_RELEASE);
    while (!fake_kicked(cpu)) sched_yield();
    fake_leave(cpu, HLSNAP__EXIT_KICKED, "");
    return false;
}

static bool b_relay(fake_cpu *cpu) { /* calls import `number` with its own arguments, passes on what comes back */
    const uint32_t import = cpu->program->exports[cpu->function].number;
    hlsnap_abi_message head;
    hlsnap_value v[HLSNAP_MAX_ARGS];
    if (!cpu->step) return fake_request(cpu, import, cpu->args, cpu->num_args);
    cpu->hv->bad += !fake_message(cpu, fake_mailbox(cpu)->response, &head, v) || (cpu->step == 1 && head.function != import);
    if (cpu->step == 1 && head.status == HLSNAP_ABI_STATUS_LARGE) { /* it has no room for that */
        v[1] = v[0];
        v[0] = hlsnap_u64(0);
        return fake_request(cpu, HLSNAP_ABI_FN_TAKE, v, 2);
    }
    if (cpu->step == 2) return fake_return_status(cpu, HLSNAP_ABI_STATUS_REFUSED, HLSNAP_ERR_LIMIT, "no room");
    cpu->used = fake_encode(fake_box(cpu, cpu->out), cpu->function, head.status, v, head.num_values);
    return true;
}

static hlsnap_value text_of(hlsnap_value bytes) {
    hlsnap_value v = hlsnap__value(HLSNAP_STR);
    v.str = (const char *)bytes.bytes;
    v.size = bytes.size;
    return v;
}

static bool b_say(fake_cpu *cpu) { /* void(i32, bytes): request FN_LOG or FN_ABORT, whatever the values */
    hlsnap_value v[2];
    if (cpu->step) return fake_return(cpu, hlsnap__value(HLSNAP_VOID));
    v[0] = cpu->args[0];
    v[1] = cpu->program->exports[cpu->function].number == HLSNAP_ABI_FN_OUTPUT ? cpu->args[1] : text_of(cpu->args[1]);
    return fake_request(cpu, cpu->program->exports[cpu->function].number, v, 2);
}

static bool b_clock(fake_cpu *cpu) { /* u64(bool): asks, or not */
    hlsnap_value v[2];
    if (cpu->step || !cpu->args[0].as.b) return fake_return(cpu, hlsnap_u64(fake_mailbox(cpu)->realtime_ns));
    v[0] = hlsnap_i32(0);
    v[1] = hlsnap_str("");
    return fake_request(cpu, HLSNAP_ABI_FN_CLOCK, v, 2);
}

static bool b_map(fake_cpu *cpu) { /* u64(str name, bool): where the map lies, or how many bytes it has */
    hlsnap_abi_message head;
    hlsnap_value v[HLSNAP_MAX_ARGS];
    v[0] = hlsnap_i32(0);
    v[1] = cpu->args[0];
    if (!cpu->step) return fake_request(cpu, HLSNAP_ABI_FN_MAP, v, 2);
    TALLY(cpu->hv->bad, !fake_message(cpu, fake_mailbox(cpu)->response, &head, v) || head.num_values != 2);
    return fake_return(cpu, v[cpu->args[1].as.b ? 1 : 0]);
}

static bool b_image(fake_cpu *cpu) { /* str(u64 from, u64 to, u64 size, u32 options): "", or why it was refused, its code first */
    static __thread char text[600];
    hlsnap_abi_message head;
    hlsnap_value v[HLSNAP_MAX_ARGS];
    if (!cpu->step) return fake_request(cpu, HLSNAP_ABI_FN_IMAGE, cpu->args, 4);
    TALLY(cpu->hv->bad, !fake_message(cpu, fake_mailbox(cpu)->response, &head, v) || head.function != HLSNAP_ABI_FN_IMAGE);
    if (head.status == HLSNAP_ABI_STATUS_OK) return TALLY(cpu->hv->bad, head.num_values != 0), fake_return(cpu, hlsnap_str(""));
    snprintf(text, sizeof(text), "%d %s", v[0].as.i32, v[1].str);
    return fake_return(cpu, hlsnap_str(text));
}
static bool b_image_odd(fake_cpu *cpu) { /* void(): a request of too few values */
    const hlsnap_value v[4] = {hlsnap_u64(0), hlsnap_u64(0), hlsnap_u64(0), hlsnap_u64(0)};
    return fake_request(cpu, HLSNAP_ABI_FN_IMAGE, v, 4);
}

/* A message with one value that refers to memory. */
static void refer(fake_cpu *cpu, uint32_t function, uint32_t type, uint64_t gva, uint64_t size) {
    hlsnap_call call;
    hlsnap__signature sig;
    memset(&call, 0, sizeof(call));
    memset(&sig, 0, sizeof(sig));
    sig.result = (uint8_t)type;
    call.signature = &sig;
    call.function = function;
    cpu->used = (uint32_t)hlsnap__call_refer(fake_box(cpu, cpu->out), &call, gva, size);
}
static bool b_refer(fake_cpu *cpu) { /* u32(u64 gva, u64 size, u32 times): an import with so much; how much of it came back, and its sum */
    const hlsnap_value *a = cpu->args;
    if (cpu->step == a[2].as.u32) return fake_return(cpu, hlsnap_u32(cpu->step));
    refer(cpu, I_BYTES, HLSNAP_BYTES, a[0].as.u64, a[1].as.u64);
    fake_mailbox(cpu)->request = cpu->out;
    fake_leave(cpu, HLSNAP__EXIT_CALL, "");
    return false;
}
static bool b_refer_twice(fake_cpu *cpu) { /* u32(u64 gva, u64 size): the same bytes as both arguments of an import */
    hlsnap_abi_reference where[2];
    hlsnap_value v[2];
    uint32_t i;
    if (cpu->step) return fake_return(cpu, hlsnap_u32(cpu->step));
    for (i = 0; i < 2; i++) {
        where[i].gva = cpu->args[0].as.u64;
        where[i].size = cpu->args[1].as.u64;
        v[i] = hlsnap_bytes(&where[i], sizeof(where[i]));
    }
    fake_request(cpu, I_TWO, v, 2);
    for (i = 0; i < 2; i++) {
        hlsnap_abi_value row;
        uint8_t *at = fake_box(cpu, cpu->out) + sizeof(hlsnap_abi_message) + i * sizeof(row);
        memcpy(&row, at, sizeof(row));
        row.type |= HLSNAP_ABI_REFERENCE;
        row.size = 0;
        memcpy(at, &row, sizeof(row));
    }
    return false;
}
static bool b_give(fake_cpu *cpu) { /* bytes(u64 gva, u64 size, u64 said): gives a result, and says of it */
    const hlsnap_value *a = cpu->args;
    if (!cpu->step && a[0].as.u64) return fake_request(cpu, HLSNAP_ABI_FN_RESULT, a, 2);
    refer(cpu, cpu->function, HLSNAP_BYTES, 0, a[2].as.u64);
    return true;
}
static bool b_result(fake_cpu *cpu) { /* bytes or str(u64 gva, u64 size): a result that is referred to */
    refer(cpu, cpu->function, cpu->program->exports[cpu->function].number, cpu->args[0].as.u64, cpu->args[1].as.u64);
    return true;
}
static bool b_take(fake_cpu *cpu) { /* u64(u64 gva, u64 size): takes a response that there is not */
    if (!cpu->step) return fake_request(cpu, HLSNAP_ABI_FN_TAKE, cpu->args, 2);
    return fake_return(cpu, hlsnap_u64(0));
}
static bool b_answer(fake_cpu *cpu) { /* bytes(u32 n, u64 gva, u64 size): a host function's large answer, taken to there; gva 2: left, its size is the result */
    hlsnap_abi_message head;
    hlsnap_value v[HLSNAP_MAX_ARGS];
    if (!cpu->step) return fake_request(cpu, I_LARGE, cpu->args, 1);
    if (cpu->step == 1) {
        cpu->hv->bad += !fake_message(cpu, fake_mailbox(cpu)->response, &head, v) || head.status != HLSNAP_ABI_STATUS_LARGE;
        if (cpu->args[1].as.u64 == 2) return fake_return(cpu, hlsnap_bytes(&v[0].as.u64, 8));
        v[1] = cpu->args[2].as.u64 ? cpu->args[2] : v[0];
        v[0] = cpu->args[1];
        return fake_request(cpu, HLSNAP_ABI_FN_TAKE, v, 2);
    }
    refer(cpu, cpu->function, HLSNAP_BYTES, cpu->args[1].as.u64 + 32, cpu->args[0].as.u32);
    return true;
}

static bool b_flood(fake_cpu *cpu) { /* void(u32): that many lines */
    hlsnap_value v[2];
    if (cpu->step == cpu->args[0].as.u32) return fake_return(cpu, hlsnap__value(HLSNAP_VOID));
    v[0] = hlsnap_i32((int32_t)(cpu->step % 5));
    v[1] = hlsnap_str("a line of no interest");
    return fake_request(cpu, HLSNAP_ABI_FN_LOG, v, 2);
}

static bool b_refuse(fake_cpu *cpu) { /* i32(i32 code) */
    return fake_return_status(cpu, HLSNAP_ABI_STATUS_REFUSED, cpu->args[0].as.i32, "refused");
}

/* ---- the programs ---- */

#define X4(t) t "," t "," t "," t
#define X32(t) X4(t) "," X4(t) "," X4(t) "," X4(t) "," X4(t) "," X4(t) "," X4(t) "," X4(t)

static const hlsnap_function fake_imports[] = {
    {"hook", "void()", NULL, NULL},          {"h_i32", "i32(i32)", NULL, NULL},   {"h_str", "str(str)", NULL, NULL},
    {"h_bytes", "bytes(bytes)", NULL, NULL}, {"h_beyond", "i32(i32)", NULL, NULL}, {"h_wrong", "i32()", NULL, NULL},
    {"h_nothing", "i32()", NULL, NULL},      {"h_code", "i32(i32)", NULL, NULL},  {"h_fail", "void(i32,str)", NULL, NULL},
    {"h_sum", "i64(" X32("i64") ")", NULL, NULL}, {"h_large", "bytes(u32)", NULL, NULL},
    {"h_two", "void(bytes,bytes)", NULL, NULL}};

static const fake_function fake_exports[] = {
    {"nop", "void()", g_nop, NULL, 0},
    {"twice", "i32(i32)", g_twice, NULL, 0},
    {"e_bool", "bool(bool)", g_echo, NULL, 0}, {"e_i32", "i32(i32)", g_echo, NULL, 0},
    {"e_u32", "u32(u32)", g_echo, NULL, 0},    {"e_i64", "i64(i64)", g_echo, NULL, 0},
    {"e_u64", "u64(u64)", g_echo, NULL, 0},    {"e_f32", "f32(f32)", g_echo, NULL, 0},
    {"e_f64", "f64(f64)", g_echo, NULL, 0},    {"e_str", "str(str)", g_echo, NULL, 0},
    {"e_bytes", "bytes(bytes)", g_echo, NULL, 0},
    {"sum", "i64(" X32("i64") ")", g_sum, NULL, 0},
    {"fail", "i32(i32,str)", g_fail, NULL, 0},
    {"code", "i32(i32)", g_code, NULL, 0},
    {"beyond", "i32(i32)", g_beyond, NULL, 0},
    {"wrong", "i32()", g_wrong, NULL, 0},
    {"nothing", "i32()", g_nop, NULL, 0},
    {"inner_nul", "str()", g_inner_nul, NULL, 0},
    {"fail_null", "void()", g_null, NULL, 0},
    {"last", "i32()", g_last, NULL, 0},
    {"fmt", "str(i32)", g_fmt, NULL, 0},
    {"fmt_nul", "str()", g_fmt_nul, NULL, 0},
    {"fmt_i32", "i32()", g_fmt_i32, NULL, 0},
    {"fmt_big", "str(i32)", g_fmt_big, NULL, 0},
    {"reserve", "bytes(u32,u32,u32)", g_reserve, NULL, 0},
    {"reserve_str", "str(u32,u32,u32)", g_reserve, NULL, 0},
    {"unreserved", "str()", g_unreserved, NULL, 0},
    {"reserve_i32", "i32()", g_reserve_i32, NULL, 0},
    {"big", "bytes(u32)", g_big, NULL, 0},
    {"generation", "u64()", g_generation, NULL, 0},
    {"log_level", "i32()", g_log_level, NULL, 0},
    {"scratch", "u64(u64)", g_scratch, NULL, 0},
    {"poke", "void(u64,bytes)", NULL, b_poke, 0},
    {"peek", "u64(u64)", NULL, b_peek, 0},
    {"dirty", "void(u64,u32,u32)", NULL, b_dirty, 0},
    {"fault", "void(u32,u64,u64,u32)", NULL, b_fault, 0},
    {"leave", "void(u32,u32)", NULL, b_leave, 0},
    {"outer", "void()", NULL, b_outer, 0},
    {"spin", "void()", NULL, b_spin, 0},
    {"log", "void(i32,bytes)", NULL, b_say, HLSNAP_ABI_FN_LOG},
    {"abort", "void(i32,bytes)", NULL, b_say, HLSNAP_ABI_FN_ABORT},
    {"output", "void(i32,bytes)", NULL, b_say, HLSNAP_ABI_FN_OUTPUT},
    {"clock", "u64(bool)", NULL, b_clock, 0},
    {"map", "u64(str,bool)", NULL, b_map, 0},
    {"image", "str(u64,u64,u64,u32)", NULL, b_image, 0}, {"image_odd", "void()", NULL, b_image_odd, 0},
    {"refer", "u32(u64,u64,u32)", NULL, b_refer, 0},
    {"refer_twice", "u32(u64,u64)", NULL, b_refer_twice, 0},
    {"give", "bytes(u64,u64,u64)", NULL, b_give, 0},
    {"result", "bytes(u64,u64)", NULL, b_result, HLSNAP_BYTES}, {"result_str", "str(u64,u64)", NULL, b_result, HLSNAP_STR},
    {"take", "u64(u64,u64)", NULL, b_take, 0},
    {"answer", "bytes(u32,u64,u64)", NULL, b_answer, 0},
    {"flood", "void(u32)", NULL, b_flood, 0},
    {"refuse", "i32(i32)", NULL, b_refuse, 0},
    {"hook", "void()", NULL, b_relay, I_HOOK},         {"r_i32", "i32(i32)", NULL, b_relay, I_I32},
    {"r_str", "str(str)", NULL, b_relay, I_STR},       {"r_bytes", "bytes(bytes)", NULL, b_relay, I_BYTES},
    {"r_beyond", "i32(i32)", NULL, b_relay, I_BEYOND}, {"r_wrong", "i32()", NULL, b_relay, I_WRONG},
    {"r_nothing", "i32()", NULL, b_relay, I_NOTHING},  {"r_code", "i32(i32)", NULL, b_relay, I_CODE},
    {"r_fail", "void(i32,str)", NULL, b_relay, I_FAIL}, {"r_sum", "i64(" X32("i64") ")", NULL, b_relay, I_SUM}};

/* What the host gives to the imports. `hook` does what the test wants. */
static void (*on_hook)(void);
__attribute__((unused)) static void *seen_users[8];
__attribute__((unused)) static size_t num_seen_users;
FN(h_hook) {
    (void)user;
    if (num_seen_users < HLSNAP_COUNT(seen_users)) seen_users[num_seen_users++] = hlsnap_call_user(call);
    if (on_hook) on_hook();
    return HLSNAP_OK;
}
FN(h_beyond) { return (void)user, ARG(7).type == HLSNAP_VOID ? hlsnap_call_return(call, hlsnap_i32(1)) : HLSNAP_OK; }

static const hlsnap_function host_functions[] = {
    {"unused", "void()", g_nop, NULL},       {"h_sum", "i64(" X32("i64") ")", g_sum, NULL}, {"hook", "void()", h_hook, NULL},
    {"h_i32", "i32(i32)", g_twice, NULL},    {"h_str", "str(str)", g_echo, NULL},
    {"h_bytes", "bytes(bytes)", g_echo, NULL}, {"h_beyond", "i32(i32)", h_beyond, NULL},
    {"h_wrong", "i32()", g_wrong, NULL},     {"h_nothing", "i32()", g_nop, NULL},
    {"h_code", "i32(i32)", g_code, NULL},    {"h_fail", "void(i32,str)", g_fail, NULL}, {"h_large", "bytes(u32)", g_big, NULL},
    {"h_two", "void(bytes,bytes)", g_nop, NULL}};

static const fake_function few_exports[] = {{"nop", "void()", g_nop, NULL, 0},
                                            {"poke", "void(u64,bytes)", NULL, b_poke, 0},
                                            {"dirty", "void(u64,u32,u32)", NULL, b_dirty, 0},
                                            {"map", "u64(str,bool)", NULL, b_map, 0},
                                            {"peek", "u64(u64)", NULL, b_peek, 0}};

enum { GUEST_ALL, GUEST_FEW, GUEST_OTHER, NUM_GUESTS };
static const fake_program fake_programs[NUM_GUESTS] = {
    {fake_runtime, fake_exports, HLSNAP_COUNT(fake_exports), fake_imports, NUM_IMPORTS},
    {fake_runtime, few_exports, HLSNAP_COUNT(few_exports), NULL, 0},
    {fake_runtime, few_exports, HLSNAP_COUNT(few_exports) - 1, NULL, 0}};

/* ---- the fixture ---- */

static fake hv;
static hlsnap_error err;

static hlsnap_sandbox_desc host_desc(void) {
    hlsnap_sandbox_desc d = HLSNAP_ZERO;
    d.hypervisor = &hv.ops;
    d.functions = host_functions;
    d.num_functions = HLSNAP_COUNT(host_functions);
    return d;
}

static void fake_reset(void) {
    fake_init(&hv, fake_programs, NUM_GUESTS);
    on_hook = NULL;
}

/* A sandbox of that program on the fixture's hypervisor; NULL with err filled. */
HLSNAP__UNUSED static hlsnap_sandbox *start(uint32_t program, uint64_t heap_pages) {
    const hlsnap_guest_desc g = fake_guest(program, heap_pages);
    const hlsnap_sandbox_desc d = host_desc();
    hlsnap_sandbox *sb;
    return hlsnap_sandbox_create(&g, &d, &sb, &err) ? NULL : sb;
}

HLSNAP__UNUSED static uint64_t region_gva(const hlsnap_sandbox *sb, uint32_t kind) {
    return hlsnap__layout_find(&sb->memory.layout, kind)->gva;
}

HLSNAP__UNUSED static hlsnap_result call0(hlsnap_sandbox *sb, const char *name) {
    return hlsnap_sandbox_call(sb, name, HLSNAP_NO_ARGS, NULL, &err);
}

/* ---- what is left behind ---- */

static int count_lines(const char *path, const char *with) {
    char line[512];
    int n = 0;
    FILE *f = fopen(path, "r");
    while (f && fgets(line, sizeof(line), f)) n += strstr(line, with) != NULL;
    if (f) fclose(f);
    return n;
}

static int count_fds(void) {
    int i, n = 0;
    for (i = 0; i < 1024; i++) n += fcntl(i, F_GETFD) >= 0;
    return n;
}

typedef struct balance { long live, maps, shells; int fds, memfds; } balance;

HLSNAP__UNUSED static balance balance_now(void) {
    balance b;
    b.live = inject.live;
    b.maps = inject.maps;
    b.shells = hv.shells;
    b.fds = count_fds();
    b.memfds = count_lines("/proc/self/maps", "memfd:hlsnap");
    return b;
}
#endif

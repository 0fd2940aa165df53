/* test_programs.c - Linux programs as guests, as programs.sh builds them: linked with the runtime, and as they are.
   cc: cc -std=gnu11 -O2 -I.. test_programs.c -o test_programs -lcjson
   run: GUEST_DIR=... ./test_programs [NAME]    the *.elf of programs.sh; a guest that is not there is a skipped row
   SVM=1: slow machine. Each guest: exact answers, a snapshot, restores that leak nothing, a layout, a fresh process that loads it
   (this program again, as --fresh DIR NAME) and gives the same answers. */
#define HLSNAP_IMPLEMENTATION
#include "hlsnap.h"
#include "hlsnap_kvm.h"
#include "hlsnap_oci.h"
#include "test.h"
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#if defined(__SANITIZE_ADDRESS__) /* which keeps what was freed */
#define SANITIZED 1
#else
#define SANITIZED 0
#endif

/* ---- >>bench: what all tests stand on ---- */

static bool is_slow;
static hlsnap_error err;
static char dir[200]; /* for layouts */

typedef struct text {
    size_t n;
    char s[1 << 16];
} text;
static text out1, out2, lines; /* what guests wrote to fd 1, to fd 2, and log lines */

static void put(text *t, const void *p, size_t n) {
    if (n > sizeof(t->s) - 1 - t->n) n = sizeof(t->s) - 1 - t->n;
    memcpy(t->s + t->n, p, n);
    t->n += n;
    t->s[t->n] = 0;
}
static void clear(void) {
    out1.n = out2.n = lines.n = 0;
    out1.s[0] = out2.s[0] = lines.s[0] = 0;
}
static void take_output(int fd, const void *bytes, size_t size, void *user) {
    (void)user;
    put(fd == 1 ? &out1 : &out2, bytes, size);
}
static void take_line(int level, const char *s, size_t size, void *user) {
    char head[16];
    (void)user;
    put(&lines, head, (size_t)snprintf(head, sizeof(head), "%d ", level));
    put(&lines, s, size);
    put(&lines, "\n", 1);
}

static hlsnap_result host_add(hlsnap_call *call, void *user) {
    (void)user;
    return hlsnap_call_return(call, hlsnap_i32(hlsnap_call_arg(call, 0).as.i32 + hlsnap_call_arg(call, 1).as.i32));
}
static const hlsnap_function host_functions[] = {{"host_add", "i32(i32,i32)", host_add, NULL}};

static char *guest_file(const char *name) {
    static char path[2][512];
    static int n;
    n ^= 1;
    snprintf(path[n], sizeof(path[n]), "%s/%s.elf", getenv("GUEST_DIR") ? getenv("GUEST_DIR") : ".", name);
    return path[n];
}
static uint8_t *read_file(const char *path, size_t *size) {
    FILE *f = fopen(path, "rb");
    struct stat st;
    uint8_t *p = NULL;
    *size = 0;
    if (!f) return NULL;
    if (!fstat(fileno(f), &st) && (p = (uint8_t *)malloc((size_t)st.st_size + 1)) != NULL)
        *size = fread(p, 1, (size_t)st.st_size, f);
    fclose(f);
    return p;
}

static void desc_of(hlsnap_sandbox_desc *d) {
    static const hlsnap_sandbox_desc zero = HLSNAP_ZERO;
    *d = zero;
    d->hypervisor = hlsnap_kvm();
    d->functions = host_functions;
    d->num_functions = HLSNAP_COUNT(host_functions);
    d->output = take_output;
    d->log = take_line;
    d->log_level = 3;
}

/* One call; its result as text: of str and bytes what they hold, of numbers their digits, of errors "21 0 text" (code, user_code,
   text). */
static const char *call_args(hlsnap_sandbox *sb, const char *fn, const hlsnap_value *args, size_t num) {
    static char result[1 << 16];
    hlsnap_value v;
    hlsnap_result r;
    memset(&v, 0, sizeof(v));
    memset(&err, 0, sizeof(err));
    clear();
    r = hlsnap_sandbox_call(sb, fn, args, num, &v, &err);
    if (r) CHECK_EQ(r, err.code);
    if (r)
        snprintf(result, sizeof(result), "%d %d %s", err.code, err.user_code, err.msg);
    else if (v.type == HLSNAP_STR)
        snprintf(result, sizeof(result), "%s", v.str);
    else if (v.type == HLSNAP_BYTES)
        snprintf(result, sizeof(result), "%.*s", (int)v.size, (const char *)v.bytes);
    else if (v.type == HLSNAP_U32 || v.type == HLSNAP_U64)
        snprintf(result, sizeof(result), "%llu", (unsigned long long)v.as.u64);
    else if (v.type == HLSNAP_I64)
        snprintf(result, sizeof(result), "%lld", (long long)v.as.i64);
    else
        snprintf(result, sizeof(result), "%d", v.type == HLSNAP_BOOL ? v.as.b : v.as.i32);
    return result;
}
#define CALL(sb, fn, ...) call_args(sb, fn, HLSNAP_ARGS(__VA_ARGS__))
#define CALL0(sb, fn) call_args(sb, fn, NULL, 0)

static bool begins(const char *s, const char *head) { return strncmp(s, head, strlen(head)) == 0; }
#define CHECK_BEGINS(s, head) test_begins(s, head, __FILE__, __LINE__)
static void test_begins(const char *s, const char *head, const char *file, int line) {
    if (begins(s, head)) return;
    printf("# %s:%d: '%.300s' does not begin with '%s'\n", file, line, s, head);
    test_bad++;
}
#define CHECK_IN(s, part) test_in(s, part, __FILE__, __LINE__)
static void test_in(const char *s, const char *part, const char *file, int line) {
    if (strstr(s, part)) return;
    printf("# %s:%d: '%.300s' has no '%s'\n", file, line, s, part);
    test_bad++;
}

static const char *missing(const char *name) {
    static char why[200];
    static hlsnap_error e;
    if (hlsnap_kvm_probe(&e)) return e.msg;
    snprintf(why, sizeof(why), "no %s.elf in GUEST_DIR", name);
    return access(guest_file(name), R_OK) ? why : NULL;
}
#define NEED(name) \
    do { \
        const char *why_ = missing(name); \
        if (why_) SKIP(why_); \
    } while (0)

/* ---- >>programs: what runs, and what it must answer ---- */

typedef struct step {
    const char *fn;
    char kind; /* of its argument: s str, b bytes, i i32, u u32, - none */
    const char *arg, *want;
    const char *said; /* what it writes to fd 1; NULL = it is not looked at */
} step;

#define MAX_STEPS 8
typedef struct program {
    const char *name, *file; /* of the row; of the guest, without .elf */
    bool linked;
    uint32_t heap_mib, every;               /* every: this many restores to a call; 0 = each */
    const char *args[12], *env[4], *files;  /* files: the archive's file, without .elf */
    step warm[MAX_STEPS], again[MAX_STEPS]; /* before the snapshot; behind it, and behind each restore and load */
} program;

// clang-format off
#define LUA_SUM "local t={} for i=1,20000 do t[i]='x'..i end return #t..' '..t[777]"
#define PY_HEAP 256
#define COMMA ,
#define NO_STEPS {{NULL, '-', NULL, NULL, NULL}}
#define BUSYBOX(row, arguments, status, text) \
    {row, "busybox", false, 16, 0, {"busybox", arguments}, {NULL}, NULL, NO_STEPS, {{"main", '-', NULL, status, text}}}

static const program programs[] = {
    {"lua", "lua", true, 128, 0, {NULL}, {NULL}, NULL,
     {{"run", 's', "function fib(n) if n < 2 then return n end return fib(n-1) + fib(n-2) end seen = 41", "nothing", ""},
      {"run", 's', LUA_SUM, "20000 x777", NULL}},
     {{"run", 's', "seen = seen + 1 print('seen', seen) return seen", "42", "seen\t42\n"},
      {"run", 's', "return fib(20)", "6765", ""},
      {"run", 's', "return string.format('%.10f %d', math.pi, #('y'):rep(100))", "3.1415926536 100", ""},
      {"run", 's', "error('oh')", "20 1 run: [string \"error('oh')\"]:1: oh", ""},
      {"run", 's', "return select(2, pcall(string.rep, 'x', 1 << 30))", "not enough memory", ""},
      {"run", 's', "local function f() return 1 + f() end return (pcall(f))", "false", ""},
      {"run", 's', "local f = assert(io.open('/tmp/l', 'w')) f:write('kept') f:close() return io.open('/tmp/l'):read('a')",
       "kept", ""},
      {"run", 's', "os.exit(3)", "26 3 ", NULL}}},
    {"sqlite", "sqlite", true, 64, 0, {NULL}, {NULL}, NULL,
     {{"sql", 's',
      "create table t(a integer primary key, b text); with recursive n(i) as (values(1) union all select i+1 from n where "
                   "i < 2000) insert into t select i, 'row ' || i from n", "", NULL}},
     {{"sql", 's', "select count(*), sum(a), max(b) from t", "2000|2001000|row 999;", NULL},
      {"sql", 's', "pragma integrity_check", "ok;", NULL},
      {"sql", 's', "select nonsense", "20 1 sql: no such column: nonsense", NULL}, {"use", 's', "/tmp/x.db", "open", NULL},
      {"sql", 's',
       "pragma journal_mode; create table u(v); begin; insert into u values (7), (8); rollback; insert into u values (9)",
        "delete;", NULL},
      {"use", 's', "/tmp/x.db", "open", NULL}, {"sql", 's', "select * from u; pragma integrity_check", "9;ok;", NULL},
      {"sql", 's', "pragma journal_mode=wal; insert into u values(10); select sum(v) from u", "wal;19;", NULL}}},
    {"cpp", "cpp", true, 32, 0, {NULL}, {NULL}, NULL, {{"thrown", 'i', "3", "caught from below through 3 frames, 1",
     "streams speak\n"}},
     {{"thrown", 'i', "20", "caught from below through 20 frames, 1", "streams speak\n"}, {"too_much", '-', NULL, "1", ""},
      {"threads", 'i', "6", "5 4 3 2 1 0 ", ""}, {"too_much", '-', NULL, "1", ""}, {"uncaught", '-', NULL, "22 -3 ", NULL}}},
    {"rust", "rust", true, 32, 0, {NULL}, {NULL}, NULL, {{"text", 's', "b a b", "a=1 b=2", "2 words\n"}},
     {{"text", 's', "to be or not to be", "be=2 not=1 or=1 to=2", "4 words\n"}, {"number", 'i', "1", "3636", ""},
      {"number", 'i', "2", "7", ""},
      {"number", 'i', "3", "8", ""}, {"number", 'i', "4", "22 -3 ", NULL}}},
    {"rust_pie", "rust_pie", true, 32, 0, {NULL}, {NULL}, NULL, NO_STEPS,
     {{"text", 's', "to be or not to be", "be=2 not=1 or=1 to=2", "4 words\n"}, {"number", 'i', "1", "3636", ""},
      {"number", 'i', "2", "7", ""}}},
    {"go_linked", "go_linked", true, 2048, 10, {NULL}, {NULL}, NULL, {{"text", 's', "hello", "HELLO", NULL}},
     {{"text", 's', "again", "AGAIN", NULL}, {"number", 'i', "10", "55", NULL}, {"text", 's', "last", "LAST", NULL}}},
    {"debian", "debian", true, 64, 0, {NULL}, {NULL}, NULL, {{"png", '-', NULL, "16384", NULL}, {"random", '-', NULL, NULL, NULL}},
     {{"sha256", 's', "abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad", NULL},
      {"png", '-', NULL, "16384", NULL},
      {"zstd", '-', NULL, "1", NULL}, {"xml", 's', "<a><n>40</n><b><n>2</n></b></a>", "42", NULL},
      {"xml", 's', "<a>", "20 1 xml: not XML", NULL},
      {"rest", '-', NULL, "42 3", NULL}}},

    {"cat", "cat", false, 8, 0, {"cat", "one", "two"}, {"SAY=hi"}, NULL, {{"feed", 'b', "first", "cat,one,two,hi\nfirst", ""}},
     {{"feed", 'b', "more", "more", ""}, {"status", '-', NULL, "-1", ""}, {"main", '-', NULL, "20 -1 main: the program runs already", ""},
      {"feed", 'b', "", "", ""}, {"status", '-', NULL, "0", ""},
      {"feed", 'b', "x", "20 0 feed: the program has ended", ""}}},
    {"lua_program", "lua_program", false, 32, 0, {"lua", "-i"}, {NULL}, NULL,
     {{"feed", 'b', "x = 41\n", "Lua 5.4.4  Copyright (C) 1994-2022 Lua.org, PUC-Rio\n> > ", ""}},
     {{"feed", 'b', "print(x + 1)\n", "42\n> ", ""}, {"feed", 'b', "for i = 1, 3 do x = x + i end print(x)\n", "47\n> ", ""},
      {"feed", 'b', "os.exit(5)\n", "", ""}, {"status", '-', NULL, "5", ""}}},
    {"lua_musl", "lua_musl", false, 32, 0, {"lua", "-"}, {NULL}, NULL, {{"feed", 'b', "print(6 * ", "", ""}},
     {{"feed", 'b', "7)", "", ""}, {"feed", 'b', "", "42\n", ""}, {"status", '-', NULL, "0", ""}}},
    {"lua_script", "lua_program", false, 32, 10, {"lua", "-e",
     "local n = 0 for i = 1, 300000 do n = n + i % 7 end print(n) os.exit(n % 256)"}, {NULL},
     NULL, NO_STEPS, {{"main", '-', NULL, "158", "899998\n"}, {"status", '-', NULL, "158", ""},
      {"main", '-', NULL, "20 158 main: the program has ended", ""}}},
    {"sqlite_program", "sqlite_program", false, 64, 0, {"sqlite3", "-batch"}, {NULL}, NULL,
     {{"feed", 'b', "create table t(a, b);\ninsert into t values (1, 'one'), (2, 'two');\nselect * from t;\n", "1|one\n2|two\n",
      ""}},
     {{"feed", 'b', "insert into t values (3, 'three'); select sum(a), group_concat(b) from t;\n", "6|one,two,three\n", ""},
      {"feed", 'b', ".mode json\nselect * from t where a = 2;\n", "[{\"a\":2,\"b\":\"two\"}]\n", ""},
      {"feed", 'b', ".quit\n", "", ""},
      {"status", '-', NULL, "0", ""}}},
    BUSYBOX("busybox_sha256", "sha256sum" COMMA "/data/hello" COMMA "/data/deep/er/file", "0",
            "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03  /data/hello\n"
            "483e70361967a64d9adc37249341a53f7a1bb88d24204e77bdf621b1927aa451  /data/deep/er/file\n"),
    BUSYBOX("busybox_ls", "ls" COMMA "-lnR" COMMA "/data", "0", NULL),
    BUSYBOX("busybox_awk", "awk" COMMA "{ n += $1; s = s \" \" toupper($2) } END { print n s, length(s) }" COMMA "/data/table", "0",
            "6 A BB CCC 9\n"),
    {"bash", "bash", false, 32, 0, {"bash"}, {NULL}, NULL,
     {{"feed", 'b', "x=$((6 * 7)); declare -A m=([a]=1 [b]=2); list=(p q r)\n", "", ""}},
     {{"feed", 'b', "echo $((x ** 2 % 100)) ${m[b]} ${#list[@]} ${list[@]^^}\n", "64 2 3 P Q R\n", ""},
      {"feed", 'b', "n=0; while read -r a b; do n=$((n + a)); echo \"$b:$n\"; done </data/table\n", "a:1\nbb:3\nccc:6\n", ""},
      {"feed", 'b', "printf '%05d %s\\n' 42 \"${x/4/four}\" >/tmp/o; read -r l </tmp/o; echo \"$l\"\n", "00042 four2\n", ""},
      {"feed", 'b', "exit 9\n", "", ""}, {"status", '-', NULL, "9", ""}}},
    {"zsh", "zsh", false, 32, 0, {"zsh", "-f"}, {NULL}, NULL, {{"feed", 'b', "x=$((6 * 7)); a=(c b a)\n", "", NULL}},
     {{"feed", 'b', "print $((x / 4.0)) ${(o)a} ${(U)a[1]} /data/*(:t)\n", "10.5 a b c C deep hello table\n", NULL},
      {"feed", 'b', "exit 8\n", "", NULL},
      {"status", '-', NULL, "8", ""}}},
    {"mksh", "mksh", false, 32, 0, {"mksh"}, {NULL}, NULL, {{"feed", 'b', "x=$((6 * 7))\n", "", NULL}},
     {{"feed", 'b', "set -A l 1 2 3; print -r -- \"$x ${#l[*]} ${x#4}\"\n", "42 3 2\n", NULL}, {"feed", 'b', "exit 7\n", "", NULL},
      {"status", '-', NULL, "7", ""}}},
    {"sash", "sash", false, 32, 0, {"sash", "-q", "-c", "-echo hello there"}, {NULL}, NULL, NO_STEPS,
    {{"main", '-', NULL, "0", "hello there\n"}}},
    {"python", "python", false, PY_HEAP, 20, {"python3", "-S", "-i", "-q", "-B"}, {"PYTHONHOME=/usr"}, "python_files",
     {{"feed", 'b', "import json, re, threading, queue\nwords = re.findall(r'[a-z]+', 'one Two three')\n", "", NULL}},
     {{"feed", 'b', "print(json.dumps({'words': words, 'n': len(words)}, sort_keys=True))\n",
      "{\"n\": 3, \"words\": [\"one\", \"wo\", \"three\"]}\n", NULL},
      {"feed", 'b',
       "q = queue.Queue(); t = [threading.Thread(target=q.put, args=(i * i,)) for i in range(8)]; _ = [x.start() for x in t]; "
                    "_ = [x.join() for x in t]; print(sorted(q.queue))\n", "[0, 1, 4, 9, 16, 25, 36, 49]\n", NULL},
      {"feed", 'b', "import time; s = time.monotonic(); time.sleep(3600); print(int(time.monotonic() - s))\n", "3600\n", NULL},
      {"feed", 'b', "_ = open('/tmp/p', 'w').write('kept'); print(open('/tmp/p').read(), 2 ** 100)\n",
       "kept 1267650600228229401496703205376\n", NULL},
      {"feed", 'b', "raise SystemExit(6)\n", "", NULL}, {"status", '-', NULL, "6", NULL}}},
    {"python_script", "python", false, PY_HEAP, 1000, {"python3", "-S", "-B", "-c",
     "import json,sys; print(json.loads('[1,{\"a\":2.5}]'), sys.version_info[0])"},
     {"PYTHONHOME=/usr"}, "python_files", NO_STEPS, {{"main", '-', NULL, "0", "[1, {'a': 2.5}] 3\n"}}},
    {"go", "go", false, 2048, 10, {"go"}, {NULL}, NULL, {{"feed", 'b', "{\"numbers\":[3,1,2,9]}\n",
     "{\"count\":1,\"squares\":[1,4,9,81],\"slept\":true}\n", ""}},
     {{"feed", 'b', "{\"numbers\":[9,8,7]}\n", "{\"count\":2,\"squares\":[49,64,81],\"slept\":true}\n", ""},
      {"feed", 'b', "nonsense\n", "error: invalid character 'o' in literal null (expecting 'u')\n", ""}, {"feed", 'b', "", "", ""},
      {"status", '-', NULL, "2", ""}}},
};
// clang-format on

static program basic_program(const char *file) {
    static const program p = {"",
                              "",
                              true,
                              64,
                              0,
                              {"basic", "x y"},
                              {"SAY=hi"},
                              NULL,
                              {{"greet", 's', "a", "hello a, 1.414, call 1, 2:basic x y ", "greeting a\n"}},
                              {{"greet", 's', "b", "hello b, 1.414, call 2, 2:basic x y ", "greeting b\n"},
                               {"fill", 'u', "32", "32", ""},
                               {"fill", 'u', "32", "32", ""},
                               {"file", 's', "line", "line", ""},
                               {"file", 's', " more", "line more", ""},
                               {"twice", '-', NULL, "42", ""},
                               {"stack", 'i', "100", "101", ""},
                               {"leave", 'i', "3", "26 3 ", ""}}};
    program q = p;
    q.name = q.file = file;
    if (is_slow) { /* emulated, a fault takes 100 us and more */
        q.heap_mib = 24;
        q.again[1].arg = q.again[1].want = q.again[2].arg = q.again[2].want = "4";
    }
    return q;
}

static size_t length(const char *const *list, size_t most) {
    size_t n = 0;
    while (n < most && list[n]) n++;
    return n;
}

/* ---- a ustar archive ---- */

typedef struct archive {
    uint8_t *p;
    size_t n;
} archive;
static void tar_sum(uint8_t *h) {
    unsigned sum = 8 * ' ', i;
    memset(h + 148, 0, 8);
    for (i = 0; i < 512; i++) sum += h[i];
    snprintf((char *)h + 148, 8, "%06o", sum);
}
static uint8_t *tar_add(archive *a, const char *name, char type, const char *link, const void *data, size_t n) {
    const size_t all = 512 + (n + 511) / 512 * 512;
    uint8_t *h;
    a->p = (uint8_t *)realloc(a->p, a->n + all + 1024);
    h = a->p + a->n;
    memset(h, 0, all + 1024);
    snprintf((char *)h, 100, "%s", name);
    snprintf((char *)h + 100, 8, "%07o", type == '5' ? 0755 : 0644);
    snprintf((char *)h + 124, 12, "%011zo", n);
    snprintf((char *)h + 136, 12, "%011o", 1700000000);
    h[156] = (uint8_t)type;
    snprintf((char *)h + 157, 100, "%s", link);
    memcpy(h + 257, "ustar\00000", 8);
    if (n) memcpy(h + 512, data, n);
    tar_sum(h);
    a->n += all;
    return h;
}
static archive tree(void) {
    archive a = {NULL, 0};
    tar_add(&a, "data/", '5', "", NULL, 0);
    tar_add(&a, "data/hello", '0', "", "hello\n", 6);
    tar_add(&a, "data/deep/er/file", '0', "", "deeper\n", 7);
    tar_add(&a, "data/table", '0', "", "1 a\n2 bb\n3 ccc\n", 15);
    a.n += 1024;
    return a;
}

/* ---- a program's way: start, warm, snapshot, restores, layout, fresh process ---- */

static bool desc_program(const program *p, hlsnap_guest_desc *g, char *path, char *runtime, uint8_t **owned) {
    static const hlsnap_guest_desc zero = HLSNAP_ZERO;
    *g = zero;
    *owned = NULL;
    strcpy(path, guest_file(p->file));
    strcpy(runtime, guest_file("linux"));
    g->path = path;
    g->heap_size = (uint64_t)p->heap_mib << 20;
    if (!p->linked) g->runtime = runtime;
    g->num_args = length(p->args, HLSNAP_COUNT(p->args));
    g->args = g->num_args ? p->args : NULL;
    g->num_env = length(p->env, HLSNAP_COUNT(p->env));
    g->env = g->num_env ? p->env : NULL;
    if (p->files) {
        *owned = read_file(guest_file(p->files), &g->files_size);
        if (!*owned) return false;
    } else if (!p->linked) {
        const archive a = tree();
        *owned = a.p;
        g->files_size = a.n;
    }
    g->files = *owned;
    return true;
}

static hlsnap_sandbox *start(const program *p, hlsnap_sandbox_desc *d) {
    char path[512], runtime[512];
    hlsnap_guest_desc g;
    hlsnap_sandbox *sb = NULL;
    uint8_t *owned;
    clear();
    if (!CHECK(desc_program(p, &g, path, runtime, &owned))) return NULL;
    if (hlsnap_sandbox_create(&g, d, &sb, &err)) {
        printf("# %s: %s: %s\n", p->name, hlsnap_result_name(err.code), err.msg);
        test_bad++;
    }
    free(owned);
    return sb;
}

static bool walk(hlsnap_sandbox *sb, const step *s, const char *when, size_t most) {
    size_t i;
    bool good = true;
    for (i = 0; i < most && s[i].fn; i++) {
        const char *got;
        hlsnap_value v = hlsnap_str(s[i].arg);
        if (s[i].kind == 'b') v = hlsnap_bytes(s[i].arg, strlen(s[i].arg));
        if (s[i].kind == 'i') v = hlsnap_i32(atoi(s[i].arg));
        if (s[i].kind == 'u') v = hlsnap_u32((uint32_t)atoi(s[i].arg));
        got = call_args(sb, s[i].fn, &v, s[i].kind != '-');
        /* an error's text may go on */
        if (s[i].want && (err.code ? !begins(got, s[i].want) : strcmp(got, s[i].want) != 0)) {
            printf("# %s: %s(%s) is '%s', not '%s'\n", when, s[i].fn, s[i].arg ? s[i].arg : "", got, s[i].want);
            good = false;
        }
        if (s[i].said && strcmp(out1.s, s[i].said) != 0) {
            printf("# %s: %s(%s) said '%s', not '%s'\n", when, s[i].fn, s[i].arg ? s[i].arg : "", out1.s, s[i].said);
            good = false;
        }
        if (!good && (lines.n || out2.n)) printf("# log: %s; fd 2: %s\n", lines.s, out2.s);
        if (!good) break;
    }
    test_bad += !good;
    return good;
}

/* What a process holds: resident pages, open descriptors, mappings. */
typedef struct held {
    long pages, fds, vmas;
} held;
static held held_now(void) {
    held h = {0, 0, 0};
    FILE *f = fopen("/proc/self/statm", "r");
    DIR *fds = opendir("/proc/self/fd");
    int c;
    if (f && fscanf(f, "%*d %ld", &h.pages) != 1) h.pages = -1;
    if (f) fclose(f);
    while (fds && readdir(fds)) h.fds++;
    if (fds) closedir(fds);
    f = fopen("/proc/self/maps", "r");
    while (f && (c = fgetc(f)) != EOF) h.vmas += c == '\n';
    if (f) fclose(f);
    return h;
}

static void soak(const program *p, hlsnap_sandbox *sb, hlsnap_snapshot *s) {
    const unsigned all = is_slow ? getenv("VMX") ? 20 : 400 : SANITIZED ? 1000 : 10000;
    const unsigned every = (p->every ? p->every : 1) * (is_slow ? 2 : 1);
    bool settled = sb->memory.settled; /* once, what stays unchanged is mapped: a few mappings and a file more */
    held before = {0, 0, 0}, after;
    unsigned i;
    for (i = 0; i < all; i++) {
        if (hlsnap_sandbox_restore(sb, s, &err)) {
            printf("# restore %u: %s\n", i, err.msg);
            test_bad++;
            return;
        }
        if (i % every == 0 && !walk(sb, p->again, "soak", 1)) return;
        if (i == all / 2 || (i > all / 2 && sb->memory.settled != settled)) before = held_now();
        CHECK(sb->memory.settled || !settled);
        settled = sb->memory.settled;
    }
    after = held_now();
    /* the first restores still find out which pages are hot */
    if (!SANITIZED && all >= 200 && !CHECK(after.pages <= before.pages + 64))
        printf("# resident pages: %ld, then %ld\n", before.pages, after.pages);
    CHECK_EQ(after.fds, before.fds);
    if (!CHECK(after.vmas <= before.vmas)) printf("# mappings: %ld, then %ld\n", before.vmas, after.vmas);
}

/* This program again: loads the snapshot and gives the answers. */
static void in_fresh_process(const program *p) {
    pid_t child;
    int status = -1;
    fflush(stdout);
    child = fork();
    if (child == 0) {
        execl("/proc/self/exe", "test_programs", "--fresh", dir, p->name, (char *)NULL);
        _exit(99);
    }
    CHECK(child > 0 && waitpid(child, &status, 0) == child);
    CHECK_EQ(status, 0);
}

static void layout_remove(void) {
    char command[300];
    snprintf(command, sizeof(command), "rm -rf '%s'", dir);
    if (system(command)) printf("# %s stays\n", dir);
}

/* In Bochs only small guests go through a layout: hashing it takes most of the time there, and nothing of it is the hypervisor's. */
static bool is_stored(const program *p) {
    struct stat st;
    return !getenv("VMX") || (!stat(guest_file(p->file), &st) && st.st_size < 512 << 10);
}

static void way(const program *p) {
    const size_t some = getenv("VMX") ? 2 : MAX_STEPS; /* all of them once, after a restore */
    hlsnap_sandbox_desc d;
    hlsnap_sandbox *sb, *clone = NULL;
    hlsnap_snapshot *s = NULL;
    desc_of(&d);
    sb = start(p, &d);
    if (!sb) return;
    if (!walk(sb, p->warm, "warm", MAX_STEPS)) goto done;
    if (!CHECK_EQ(hlsnap_sandbox_snapshot(sb, &s, &err), HLSNAP_OK)) goto done;
    if (!walk(sb, p->again, "first", some)) goto done;
    if (!CHECK_EQ(hlsnap_sandbox_restore(sb, s, &err), HLSNAP_OK) || !walk(sb, p->again, "restored", MAX_STEPS))
        goto done;
    if (!CHECK_EQ(hlsnap_sandbox_create_from(s, &d, &clone, &err), HLSNAP_OK) ||
        !walk(clone, p->again, "clone", some))
        goto done;
    hlsnap_sandbox_destroy(clone);
    clone = NULL;
    soak(p, sb, s);
    if (!is_stored(p)) goto done;
    if (!CHECK_EQ(hlsnap_oci_save(dir, "warm", s, NULL, NULL, &err), HLSNAP_OK))
        printf("# %s\n", err.msg);
    else
        in_fresh_process(p);
    layout_remove();
done:
    hlsnap_sandbox_destroy(clone);
    hlsnap_sandbox_destroy(sb);
    hlsnap_snapshot_release(s);
}

static const program *program_named(const char *name) {
    static program basic;
    size_t i;
    for (i = 0; i < HLSNAP_COUNT(programs); i++)
        if (!strcmp(programs[i].name, name)) return &programs[i];
    basic = basic_program(name);
    return &basic;
}

static int fresh(const char *from, const char *name) {
    const program *p = program_named(name);
    hlsnap_sandbox_desc d;
    hlsnap_snapshot *s = NULL;
    hlsnap_sandbox *sb = NULL;
    desc_of(&d);
    if (hlsnap_oci_load(from, "warm", NULL, &s, NULL, &err) || hlsnap_sandbox_create_from(s, &d, &sb, &err)) {
        printf("# fresh: %s\n", err.msg);
        return 1;
    }
    walk(sb, p->again, "fresh", MAX_STEPS);
    hlsnap_sandbox_destroy(sb);
    hlsnap_snapshot_release(s);
    return test_bad != 0;
}

static void run_named(const char *name) {
    const program *p = program_named(name);
    NEED(p->file);
    way(p);
}

/* ---- >>clones: what may not be the same twice ---- */

#define BASICS "basic.musl.O2", "basic.glibc.O2"
static void each_basic(void (*run)(const program *)) {
    static const char *const names[] = {BASICS};
    size_t i;
    for (i = 0; i < HLSNAP_COUNT(names); i++) {
        NEED(names[i]);
        run(program_named(names[i]));
    }
}

static int by_text(const void *a, const void *b) { return strcmp((const char *)a, (const char *)b); }

/* n texts of 100 bytes, all different; but for so many, where there are few to choose from. */
static void all_differ(char (*list)[100], size_t n, size_t but, const char *what) {
    size_t i, same = 0;
    qsort(list, n, sizeof(*list), by_text);
    for (i = 1; i < n; i++)
        if (!strcmp(list[i], list[i - 1]) && ++same > but) {
            printf("# %s twice: %s\n", what, list[i]);
            test_bad++;
            return;
        }
}

#define CLONES 100
static char randoms[CLONES][100], pids[CLONES][100];

static void clones(const program *p) {
    hlsnap_sandbox_desc d;
    hlsnap_sandbox *sb, *other = NULL;
    hlsnap_snapshot *s = NULL;
    int i, pid, wiped;
    desc_of(&d);
    sb = start(p, &d);
    if (!sb) return;
    CALL0(sb, "own");
    CHECK_IN(CALL0(sb, "own"), " 1"); /* the page is as it was left */
    CHECK_EQ(hlsnap_sandbox_snapshot(sb, &s, &err), HLSNAP_OK);
    CHECK_IN(CALL0(sb, "own"), " 1");
    for (i = 0; i < CLONES; i++) {
        hlsnap_sandbox *at = sb;
        if (i % 10 == 9) {
            if (!CHECK_EQ(hlsnap_sandbox_create_from(s, &d, &other, &err), HLSNAP_OK)) break;
            at = other;
        } else
            CHECK_EQ(hlsnap_sandbox_restore(sb, s, &err), HLSNAP_OK);
        if (!CHECK_EQ(sscanf(CALL0(at, "own"), "%99s %d %d", randoms[i], &pid, &wiped), 3)) break;
        CHECK_EQ(wiped, 0);
        CHECK(pid > 1);
        snprintf(pids[i], sizeof(pids[i]), "%d", pid);
        CHECK_IN(CALL0(at, "own"), " 1");
        hlsnap_sandbox_destroy(other);
        other = NULL;
    }
    all_differ(randoms, CLONES, 0, "getrandom");
    all_differ(pids, CLONES, 1, "getpid"); /* of 4 million: two of 100 are the same once in 850 runs */
    hlsnap_sandbox_destroy(sb);
    hlsnap_snapshot_release(s);
}
static void clones_differ(void) { each_basic(clones); }

static void clones_differ_in_openssl(void) {
    const program *p = program_named("debian");
    hlsnap_sandbox_desc d;
    hlsnap_sandbox *sb;
    hlsnap_snapshot *s = NULL;
    int i;
    NEED("debian");
    desc_of(&d);
    sb = start(p, &d);
    if (!sb) return;
    CALL0(sb, "random"); /* seeds it */
    CHECK_EQ(hlsnap_sandbox_snapshot(sb, &s, &err), HLSNAP_OK);
    for (i = 0; i < CLONES; i++) {
        CHECK_EQ(hlsnap_sandbox_restore(sb, s, &err), HLSNAP_OK);
        snprintf(randoms[i], sizeof(randoms[i]), "%.99s", CALL0(sb, "random"));
        CHECK_EQ(strlen(randoms[i]), 32);
    }
    all_differ(randoms, CLONES, 0, "RAND_bytes");
    hlsnap_sandbox_destroy(sb);
    hlsnap_snapshot_release(s);
}

static uint64_t number(const char *s) { return strtoull(s, NULL, 10); }

static void clocks(const program *p) {
    static const int which[] = {0, 1, 4, 5, 6, 7}; /* realtime, monotonic, raw, coarse ones, boot */
    hlsnap_sandbox_desc d;
    hlsnap_sandbox *sb;
    hlsnap_snapshot *s = NULL;
    uint64_t last[8] = {0}, t;
    size_t i, k;
    desc_of(&d);
    sb = start(p, &d);
    if (!sb) return;
    CHECK_EQ(hlsnap_sandbox_snapshot(sb, &s, &err), HLSNAP_OK);
    for (i = 0; i < (is_slow ? 60 : 2000); i++) {
        if (i % 4 == 3) CHECK_EQ(hlsnap_sandbox_restore(sb, s, &err), HLSNAP_OK);
        for (k = 0; k < HLSNAP_COUNT(which); k++) {
            t = number(CALL(sb, "now", hlsnap_i32(which[k])));
            if (!CHECK_EQ(err.code, HLSNAP_OK)) break;
            if (!CHECK(t >= last[which[k]]))
                printf("# clock %d went back by %llu ns, step %zu\n", which[k],
                       (unsigned long long)(last[which[k]] - t), i);
            last[which[k]] = t;
        }
        if (test_bad) break;
    }
    t = (uint64_t)time(NULL);
    if (!CHECK(last[0] / 1000000000 + 2 >= t && last[0] / 1000000000 <= t + 2))
        printf("# the guest's time is %llu, the host's %llu\n", (unsigned long long)(last[0] / 1000000000),
               (unsigned long long)t);
    hlsnap_sandbox_destroy(sb);
    d.no_clock = true;
    sb = start(p, &d);
    if (sb) {
        const uint64_t first = number(CALL(sb, "now", hlsnap_i32(0)));
        CHECK(first < 1000000000);
        CHECK_EQ(number(CALL(sb, "now", hlsnap_i32(0))), first + 1000);
    }
    hlsnap_sandbox_destroy(sb);
    hlsnap_snapshot_release(s);
}
static void clocks_never_go_back(void) { each_basic(clocks); }

/* ---- >>ends: each is typed, and a restore mends it ---- */

typedef struct bench {
    hlsnap_sandbox *sb;
    hlsnap_snapshot *s;
} bench;
static bool bench_make(bench *b, const program *p, hlsnap_sandbox_desc *d) {
    b->s = NULL;
    b->sb = start(p, d);
    return b->sb && CHECK_EQ(hlsnap_sandbox_snapshot(b->sb, &b->s, &err), HLSNAP_OK);
}
static void bench_end(bench *b) {
    hlsnap_sandbox_destroy(b->sb);
    hlsnap_snapshot_release(b->s);
}
static void bench_mended(bench *b) { /* from POISONED */
    CHECK_EQ(hlsnap_sandbox_get_state(b->sb), HLSNAP_POISONED);
    CHECK_EQ(hlsnap_sandbox_restore(b->sb, b->s, &err), HLSNAP_OK);
    CHECK_BEGINS(CALL(b->sb, "greet", hlsnap_str("you")), "hello you, 1.414, call 1, ");
}

static void ends(const program *p) {
    hlsnap_sandbox_desc d;
    bench b;
    desc_of(&d);
    if (bench_make(&b, p, &d)) {
        CHECK_BEGINS(CALL(b.sb, "leave", hlsnap_i32(200)), "26 200 ");
        CHECK_IN(err.msg, "exit 200");
        bench_mended(&b);
        CHECK_BEGINS(CALL(b.sb, "leave", hlsnap_i32(0)), "26 0 ");
        bench_mended(&b);
        CHECK_BEGINS(CALL(b.sb, "die", hlsnap_i32(0)), "22 -3 ");
        bench_mended(&b);
        CHECK_BEGINS(CALL(b.sb, "die", hlsnap_i32(1)), "21 0 ");
        CHECK_EQ(err.vector, 14);
        CHECK_EQ(err.cr2, 16);
        bench_mended(&b);
        CHECK_BEGINS(CALL(b.sb, "die", hlsnap_i32(15)), "22 -6 ");
        CHECK_IN(err.msg, "15");
        bench_mended(&b);
        CHECK_STR(CALL(b.sb, "die", hlsnap_i32(23)), "0"); /* SIGURG is nothing */
    }
    bench_end(&b);
}
static void ends_are_typed(void) { each_basic(ends); }

static void stacks(const program *p) {
    hlsnap_sandbox_desc d;
    bench b;
    desc_of(&d);
    if (bench_make(&b, p, &d)) {
        CHECK_STR(CALL(b.sb, "stack", hlsnap_i32(150)), "151");
        CHECK_BEGINS(CALL(b.sb, "stack", hlsnap_i32(100000)), "21 0 ");
        CHECK_IN(err.msg, "stack overflow");
        CHECK_IN(err.msg, ": raise stack_size=1048576 of the guest desc");
        CHECK_STR(err.region, "guard");
        bench_mended(&b);
        CHECK_BEGINS(CALL(b.sb, "leap", hlsnap_i32(1)), "21 0 ");
        CHECK_IN(err.msg, "stack overflow");
        CHECK_STR(err.region, "guard");
        bench_mended(&b);
    }
    bench_end(&b);
}
static void stack_overflow_is_a_typed_fault(void) { each_basic(stacks); }

static void heaps(const program *p) {
    hlsnap_sandbox_desc d;
    bench b;
    int i;
    desc_of(&d);
    if (bench_make(&b, p, &d)) {
        for (i = 0; i < (is_slow ? 2 : 3); i++) {
            CHECK_STR(CALL(b.sb, "exhaust", hlsnap_u32(1 << 20)), "12");
            CHECK_STR(CALL(b.sb, "exhaust", hlsnap_u32(5000)), "12");
            CHECK_STR(CALL(b.sb, "exhaust", hlsnap_u32(100)), "12");
            CHECK_STR(CALL(b.sb, "fill", hlsnap_u32(p->heap_mib / 2)), p->heap_mib == 64 ? "32" : "12");
        }
        CHECK_EQ(hlsnap_sandbox_get_state(b.sb), HLSNAP_READY);
    }
    bench_end(&b);
}
static void heap_exhaustion_is_enomem(void) { each_basic(heaps); }

/* What a desc does not say: 64 MiB of heap. */
static void defaults(const program *p) {
    program q = *p;
    hlsnap_sandbox_desc d;
    hlsnap_sandbox *sb;
    q.heap_mib = 0;
    desc_of(&d);
    sb = start(&q, &d);
    if (sb) CHECK_STR(CALL(sb, "fill", hlsnap_u32(is_slow ? 4 : 56)), is_slow ? "4" : "56");
    hlsnap_sandbox_destroy(sb);
}
static void defaults_are_enough(void) { each_basic(defaults); }

static void spins(const program *p) {
    hlsnap_sandbox_desc d;
    bench b;
    int i;
    desc_of(&d);
    d.timeout_ns = (is_slow ? 2000 : 200) * 1000000ull;
    if (bench_make(&b, p, &d))
        for (i = 0; i < 4; i++) { /* in the program; in the personality */
            CHECK_BEGINS(CALL(b.sb, "spin", hlsnap_i32(i & 1)), "24 0 ");
            bench_mended(&b);
        }
    bench_end(&b);
}
static void time_limit_ends_a_spin(void) { each_basic(spins); }

/* ---- >>refused ---- */

// clang-format off
static const struct refusal { int number, error; const char *name; int64_t args[6]; } refusals[] = {
    {57, 1, "fork", {0}}, {58, 1, "vfork", {0}}, {56, 1, "clone", {17}}, {59, 1, "execve", {0}}, {322, 1, "execveat", {0}},
     {41, 38, "socket", {2, 1}},
    {53, 38, "socketpair", {1, 1}}, {9, 13, "mmap", {0, 4096, 7, 0x22, -1}}, {425, 38, "io_uring_setup", {8}}, {101, 38, "ptrace",
     {0}},
    {321, 38, "bpf", {0}}, {165, 38, "mount", {0}}, {298, 38, "perf_event_open", {0}}, {250, 38, "keyctl", {0}}, {172, 38, "iopl",
     {3}},
    {317, 38, "seccomp", {0}}, {319, 38, "memfd_create", {0}}, {999, 38, "999", {0}}};
// clang-format on

static const char *refused(hlsnap_sandbox *sb, const struct refusal *r) {
    const int64_t *a = r->args;
    return CALL(sb, "raw", hlsnap_i64(r->number), hlsnap_i64(a[0]), hlsnap_i64(a[1]), hlsnap_i64(a[2]),
                hlsnap_i64(a[3]), hlsnap_i64(a[4]), hlsnap_i64(a[5]));
}

static void refuses(const program *p) {
    hlsnap_sandbox_desc d;
    bench b;
    size_t i;
    char want[32];
    desc_of(&d);
    if (bench_make(&b, p, &d)) {
        for (i = 0; i < HLSNAP_COUNT(refusals); i++) {
            snprintf(want, sizeof(want), "%d", -refusals[i].error);
            CHECK_STR(refused(b.sb, &refusals[i]), want);
            CHECK_IN(lines.s, refusals[i].name);
            CHECK_STR(refused(b.sb, &refusals[i]), want);
            CHECK_STR(lines.s, ""); /* once */
        }
        CHECK_BEGINS(CALL(b.sb, "leave", hlsnap_i32(1)), "26 1 ");
        CHECK_IN(err.msg, "refused: fork (57), ");
    }
    bench_end(&b);
    d.strict_syscalls = true;
    if (bench_make(&b, p, &d))
        for (i = 0; i < HLSNAP_COUNT(refusals); i++) {
            CHECK_BEGINS(refused(b.sb, &refusals[i]), "22 -6 ");
            CHECK_IN(err.msg, refusals[i].name);
            if (hlsnap_sandbox_get_state(b.sb) == HLSNAP_POISONED) bench_mended(&b);
        }
    bench_end(&b);
}
static void refused_calls(void) { each_basic(refuses); }

/* A program that has an answer of the time before it went wrong, and one that goes wrong at once. */
static void programs_that_end_badly(void) {
    static const char *const how[] = {"fault", "abort", "socket"}, *const wants[] = {"21 0 ", "22 -3 ", "4"};
    program p = *program_named("cat");
    hlsnap_sandbox_desc d;
    size_t i;
    NEED("cat");
    NEED("linux");
    desc_of(&d);
    for (i = 0; i < HLSNAP_COUNT(how); i++) {
        bench b;
        p.args[1] = how[i];
        p.args[2] = NULL;
        if (bench_make(&b, &p, &d)) {
            CHECK_BEGINS(CALL0(b.sb, "main"), wants[i]);
            CHECK_IN(out1.s, "hi\n");
            if (i == 2) CHECK_IN(lines.s, "refused: socket (41)");
            CHECK_EQ(hlsnap_sandbox_restore(b.sb, b.s, &err), HLSNAP_OK);
            CHECK_STR(CALL0(b.sb, "status"), "-1");
        }
        bench_end(&b);
    }
}

/* Of a program as it is, cat with one argument: */
static program cat_with(const char *argument) {
    program p = *program_named("cat");
    p.args[1] = argument;
    p.args[2] = NULL;
    return p;
}

/* what waits for input keeps all its registers, also over restores, and what is behind a call that failed does not run; */
static void waits_as_it_was(void) {
    static const char *const names[] = {"status", "main", "feed"};
    const hlsnap_value end = hlsnap_bytes("", 0);
    program p = cat_with("vectors");
    hlsnap_invocation calls[3];
    hlsnap_value outs[3];
    hlsnap_sandbox_desc d;
    size_t i, done = 9;
    bench b;
    NEED("cat");
    NEED("linux");
    desc_of(&d);
    b.s = NULL;
    b.sb = start(&p, &d);
    if (!b.sb) return;
    CHECK_STR(CALL(b.sb, "feed", hlsnap_bytes("x", 1)), "cat,vectors,hi\nkept\n");
    CHECK_STR(CALL(b.sb, "feed", hlsnap_bytes("x", 1)), "kept\n");
    CHECK_EQ(hlsnap_sandbox_snapshot(b.sb, &b.s, &err), HLSNAP_OK);
    for (i = 0; i < 3; i++) {
        CHECK_EQ(hlsnap_sandbox_restore(b.sb, b.s, &err), HLSNAP_OK);
        CHECK_STR(CALL(b.sb, "feed", hlsnap_bytes("x", 1)), "kept\n");
    }
    memset(calls, 0, sizeof(calls));
    for (i = 0; i < 3; i++) CHECK_EQ(hlsnap_sandbox_find(b.sb, names[i], NULL, &calls[i].target, &err), HLSNAP_OK);
    calls[2].args = &end;
    calls[2].num_args = 1;
    CHECK_EQ(hlsnap_sandbox_invoke(b.sb, calls, 3, outs, &done, &err), HLSNAP_ERR_FUNCTION);
    CHECK_EQ(done, 1);
    CHECK_BEGINS(err.msg, "main: the program runs already");
    CHECK_STR(CALL0(b.sb, "status"), "-1");
    bench_end(&b);
}

/* input beyond the mailbox's room, by a heap that has it, is kept while the program reads; */
static void feeds_what_the_heap_holds(void) {
    static char input[200000];
    const size_t head = strlen("cat,long,hi\n");
    const hlsnap_value v = hlsnap_bytes(input, sizeof(input));
    program p = cat_with("long");
    size_t i, k, n = 0, bad = 0;
    hlsnap_sandbox_desc d;
    hlsnap_sandbox *sb;
    hlsnap_value part;
    NEED("cat");
    NEED("linux");
    desc_of(&d);
    sb = start(&p, &d);
    if (!sb) return;
    for (k = 0; k < sizeof(input); k++) input[k] = (char)('a' + k % 23);
    for (i = 0; i < 2; i++) {
        if (!CHECK_EQ(hlsnap_sandbox_call(sb, "feed", &v, 1, &part, &err), HLSNAP_OK)) break;
        while (part.size) {
            const char *got = (const char *)part.bytes;
            for (k = 0; k < part.size; k++, n++) bad += n >= head && got[k] != input[(n - head) % sizeof(input)];
            if (!CHECK_EQ(hlsnap_sandbox_call(sb, "more", HLSNAP_NO_ARGS, &part, &err), HLSNAP_OK)) break;
        }
    }
    CHECK_EQ(n, head + 2 * sizeof(input));
    CHECK_EQ(bad, 0);
    hlsnap_sandbox_destroy(sb);
}

/* and one that has not begun begins with random bytes of its own each time. */
static void begins_with_its_own_random(void) {
    program p = cat_with("random");
    hlsnap_sandbox_desc d;
    char first[200];
    bench b;
    NEED("cat");
    NEED("linux");
    desc_of(&d);
    if (bench_make(&b, &p, &d)) {
        CHECK_STR(CALL0(b.sb, "main"), "0");
        snprintf(first, sizeof(first), "%.199s", out1.s);
        CHECK_EQ(strlen(first), strlen("cat,random,hi\n") + 32);
        CHECK_EQ(hlsnap_sandbox_restore(b.sb, b.s, &err), HLSNAP_OK);
        CHECK_STR(CALL0(b.sb, "main"), "0");
        CHECK(strlen(out1.s) == strlen(first) && strcmp(out1.s, first) != 0);
    }
    bench_end(&b);
}

/* ---- >>minigzip: byte for byte what the same program makes natively ---- */

static uint8_t plain_text[300000], packed_natively[400000], packed_inside[400000];

static size_t native_gzip(size_t n) {
    int in[2], out[2];
    pid_t feeder, child;
    size_t all = 0;
    ssize_t got;
    if (pipe(in) || pipe(out)) return 0;
    fflush(stdout);
    child = fork();
    if (child == 0) {
        dup2(in[0], 0), dup2(out[1], 1);
        close(in[1]), close(out[0]);
        execl(guest_file("minigzip"), "minigzip", (char *)NULL);
        _exit(99);
    }
    close(in[0]), close(out[1]);
    feeder = fork();
    if (feeder == 0) {
        close(out[0]);
        _exit(write(in[1], plain_text, n) != (ssize_t)n);
    }
    close(in[1]);
    while ((got = read(out[0], packed_natively + all, sizeof(packed_natively) - all)) > 0) all += (size_t)got;
    close(out[0]);
    waitpid(child, NULL, 0);
    waitpid(feeder, NULL, 0);
    return all;
}

static void minigzip_is_byte_equal(void) {
    static const program p = {"minigzip", "minigzip", false, 32, 0, {"minigzip"}, {NULL}, NULL, NO_STEPS, NO_STEPS};
    hlsnap_sandbox_desc d;
    hlsnap_sandbox *sb;
    hlsnap_value v;
    size_t i, n = 0, at, native;
    NEED("minigzip");
    for (i = 0; i < sizeof(plain_text); i++) plain_text[i] = (uint8_t)(i * i >> 9 ^ i >> 3);
    native = native_gzip(sizeof(plain_text));
    CHECK(native > 1000);
    desc_of(&d);
    sb = start(&p, &d);
    if (!sb) return;
    for (at = 0; at <= sizeof(plain_text); at += 20000) { /* the last one is empty: the end */
        if (!CHECK_EQ(hlsnap_sandbox_call(
                          sb, "feed", HLSNAP_ARGS(hlsnap_bytes(plain_text + at, at < sizeof(plain_text) ? 20000 : 0)),
                          &v, &err),
                      HLSNAP_OK))
            break;
        do {
            if (!CHECK(n + v.size <= sizeof(packed_inside))) break;
            memcpy(packed_inside + n, v.bytes, v.size);
            n += v.size;
        } while (!hlsnap_sandbox_call(sb, "more", NULL, 0, &v, &err) && v.size);
    }
    CHECK_STR(CALL0(sb, "status"), "0");
    CHECK_EQ(n, native);
    CHECK(!memcmp(packed_inside, packed_natively, n));
    hlsnap_sandbox_destroy(sb);
}

/* ---- >>bad input ---- */

/* A guest of these bytes, with the runtime or without: what comes of it. */
static hlsnap_result made_of(const void *data, size_t n, const char *runtime) {
    hlsnap_guest_desc g = HLSNAP_ZERO;
    hlsnap_sandbox_desc d;
    hlsnap_sandbox *sb = NULL;
    hlsnap_result r;
    desc_of(&d);
    memset(&err, 0, sizeof(err));
    g.data = data;
    g.data_size = n;
    g.heap_size = 8 << 20;
    g.runtime = runtime;
    r = hlsnap_sandbox_create(&g, &d, &sb, &err);
    hlsnap_sandbox_destroy(sb);
    if (getenv("SHOW")) printf("# %d %s\n", r, err.msg);
    return r;
}

static void bad_binaries(void) {
    char runtime[512];
    size_t n, dynamic_size, i, k;
    uint8_t *cat = NULL, *dynamic = NULL, *bad = NULL;
    NEED("cat");
    NEED("linux");
    strcpy(runtime, guest_file("linux"));
    cat = read_file(guest_file("cat"), &n);
    bad = (uint8_t *)malloc(n);
    dynamic = read_file(guest_file("cat_dynamic"), &dynamic_size);
    if (!CHECK(cat && bad && dynamic)) goto done;
// clang-format off
#define PATCHED(at, type, value, want) do { \
        type v_ = (value); memcpy(bad, cat, n); memcpy(bad + (at), &v_, sizeof(v_)); \
        CHECK_EQ(made_of(bad, n, runtime), want); \
    } while (0)
    // clang-format on
    CHECK_EQ(made_of(cat, n, runtime), HLSNAP_OK);
    CHECK_EQ(made_of(dynamic, dynamic_size, runtime), HLSNAP_ERR_ELF_DYNAMIC);
    CHECK_IN(err.msg, "static");
    CHECK_EQ(made_of(dynamic, dynamic_size, NULL), HLSNAP_ERR_ELF_DYNAMIC);
    CHECK(made_of(cat, n, NULL) != HLSNAP_OK);         /* nobody answers its system calls */
    PATCHED(18, uint16_t, 183, HLSNAP_ERR_ELF);        /* aarch64 */
    PATCHED(4, uint8_t, 1, HLSNAP_ERR_ELF);            /* 32 bits */
    PATCHED(24, uint64_t, 0, HLSNAP_ERR_ELF);          /* no entry */
    PATCHED(24, uint64_t, 1ull << 40, HLSNAP_ERR_ELF); /* one outside of its code */
    PATCHED(24, uint64_t, 0x400000, HLSNAP_ERR_ELF);
    PATCHED(32, uint64_t, n - 8, HLSNAP_ERR_ELF);                      /* headers outside */
    PATCHED(64 + 56 + 16, uint64_t, 0x400000, HLSNAP_ERR_ELF_SEGMENT); /* the second segment over the first */
    for (i = 0; i < n; i += i < 512 ? 8 : n / 7) {
        const hlsnap_result r = made_of(cat, i, runtime);
        if (!CHECK(r == HLSNAP_ERR_ELF || r == HLSNAP_ERR_ELF_SEGMENT || r == HLSNAP_ERR_ARG))
            printf("# %zu bytes: %d %s\n", i, r, err.msg);
    }
    for (k = 0; k < (is_slow ? 100u : 2000u); k++) { /* whatever comes of it is typed, and this process goes on */
        memcpy(bad, cat, n);
        for (i = 0; i < 1 + k % 3; i++) bad[(k * 2654435761u + i * 40503u) % 512] ^= (uint8_t)(1u << (k + i) % 8);
        CHECK(made_of(bad, n, runtime) < HLSNAP_ERR_LAYOUT);
    }
done:
    free(cat);
    free(bad);
    free(dynamic);
}

static void bad_runtimes(void) {
    size_t n;
    uint8_t *cat;
    char linked[512], none[512];
    NEED("cat");
    NEED("linux");
    cat = read_file(guest_file("cat"), &n);
    CHECK_EQ(made_of(cat, n, guest_file("cat")), HLSNAP_ERR_ELF);
    CHECK_IN(err.msg, "no guest runtime");
    CHECK_EQ(made_of(cat, n, guest_file("cat_dynamic")), HLSNAP_ERR_ELF_DYNAMIC);
    strcpy(none, guest_file("no such file"));
    CHECK_EQ(made_of(cat, n, none), HLSNAP_ERR_OS);
    CHECK_EQ(err.os_errno, ENOENT);
    CHECK_EQ(made_of(cat, n, getenv("GUEST_DIR")), HLSNAP_ERR_OS); /* a directory */
    free(cat);
    if (access(guest_file("basic.musl.O2"), R_OK)) return;
    strcpy(linked, guest_file("basic.musl.O2"));
    cat = read_file(linked, &n);
    CHECK_EQ(made_of(cat, n, guest_file("linux")), HLSNAP_ERR_ARG); /* two */
    CHECK_IN(err.msg, "runtime of its own");
    free(cat);
    cat = read_file(guest_file("cat"), &n);
    CHECK_EQ(made_of(cat, n, linked), HLSNAP_ERR_ELF);
    free(cat);
}

static hlsnap_result with(const hlsnap_guest_desc *g) {
    hlsnap_sandbox_desc d;
    hlsnap_sandbox *sb = NULL;
    hlsnap_result r;
    desc_of(&d);
    r = hlsnap_sandbox_create(g, &d, &sb, &err);
    hlsnap_sandbox_destroy(sb);
    return r;
}

static void bad_arguments(void) {
    static const char *many[5000], *few[3] = {"cat", NULL, "x"};
    static char long_one[1 << 20];
    char runtime[512], path[512];
    hlsnap_guest_desc g = HLSNAP_ZERO;
    size_t i;
    NEED("cat");
    NEED("linux");
    memset(long_one, 'x', sizeof(long_one) - 1);
    for (i = 0; i < HLSNAP_COUNT(many); i++) many[i] = "a";
    strcpy(runtime, guest_file("linux"));
    strcpy(path, guest_file("cat"));
    g.path = path;
    g.runtime = runtime;
    g.args = many;
    g.num_args = 4000;
    CHECK_EQ(with(&g), HLSNAP_OK);
    g.num_args = HLSNAP_COUNT(many);
    CHECK_EQ(with(&g), HLSNAP_ERR_ARG);
    CHECK_IN(err.msg, "num_args=5000");
    g.num_args = (size_t)-1;
    CHECK_EQ(with(&g), HLSNAP_ERR_ARG);
    g.args = few;
    g.num_args = 3;
    CHECK_EQ(with(&g), HLSNAP_ERR_ARG);
    CHECK_IN(err.msg, "args[1] is NULL");
    few[1] = long_one;
    CHECK_EQ(with(&g), HLSNAP_ERR_ARG);
    CHECK_IN(err.msg, "stack_size");
    g.args = NULL;
    CHECK_EQ(with(&g), HLSNAP_ERR_ARG);
    g.num_args = 0;
    g.env = few;
    g.num_env = 2;
    CHECK_EQ(with(&g), HLSNAP_ERR_ARG);
    g.env = NULL;
    CHECK_EQ(with(&g), HLSNAP_ERR_ARG);
    g.num_env = 0;
    g.files = long_one;
    CHECK_EQ(with(&g), HLSNAP_ERR_ARG);
    g.files = NULL;
    g.files_size = 1024;
    CHECK_EQ(with(&g), HLSNAP_ERR_ARG);
    g.files_size = 0;
    g.stack_size = 4096; /* too small to start on */
    CHECK(with(&g) == HLSNAP_OK || err.code == HLSNAP_ERR_FAULT || err.code == HLSNAP_ERR_ARG);
}

static text made; /* log lines of the last start */

/* busybox lists what an archive made of the tree; what was said of it is in `made`. */
static const char *found(const archive *a, size_t n) {
    static const program p = {"find", "busybox", false,    16,      0, {"busybox", "find", "/data"},
                              {NULL}, NULL,      NO_STEPS, NO_STEPS};
    char path[512], runtime[512];
    hlsnap_guest_desc g;
    hlsnap_sandbox_desc d;
    hlsnap_sandbox *sb = NULL;
    uint8_t *owned;
    const char *got = "not even created";
    desc_of(&d);
    clear();
    if (!CHECK(desc_program(&p, &g, path, runtime, &owned))) return got;
    free(owned);
    g.files = a->p;
    g.files_size = n;
    if (CHECK_EQ(hlsnap_sandbox_create(&g, &d, &sb, &err), HLSNAP_OK)) {
        made = lines;
        got = CALL0(sb, "main");
        CHECK_EQ(hlsnap_sandbox_get_state(sb), HLSNAP_READY);
    } else
        printf("# %s\n", err.msg);
    hlsnap_sandbox_destroy(sb);
    if (getenv("SHOW")) printf("# %s: %s; %s\n", got, out1.s, made.s);
    return got;
}

#define GOOD_FIRST() \
    do { \
        a.n = 0; \
        tar_add(&a, "data/first", '0', "", "1", 1); \
    } while (0)
#define GOOD_LAST() \
    do { \
        tar_add(&a, "data/last", '0', "", "2", 1); \
    } while (0)
static void archives_that_lead_out(void) {
    static const char *const outside[] = {"../etc/passwd", "data/../../x", "/../data/x", "data/.."};
    archive a = {NULL, 0};
    size_t i;
    NEED("busybox");
    NEED("linux");
    for (i = 0; i < HLSNAP_COUNT(outside); i++) { /* these are left out, and said */
        GOOD_FIRST();
        tar_add(&a, outside[i], '0', "", "x", 1);
        GOOD_LAST();
        CHECK_STR(found(&a, a.n + 1024), "0");
        CHECK_STR(out1.s, "/data\n/data/first\n/data/last\n");
        CHECK_IN(made.s, "offset 1024");
    }
    for (i = 0; i < 3; i++) { /* devices and a FIFO */
        GOOD_FIRST();
        tar_add(&a, "data/device", "346"[i], "", NULL, 0);
        GOOD_LAST();
        CHECK_STR(found(&a, a.n + 1024), "0");
        CHECK_STR(out1.s, "/data\n/data/first\n/data/last\n");
        CHECK_IN(made.s, "offset 1024");
    }
    GOOD_FIRST(); /* links that lead out, nowhere, to themselves: names and no more */
    tar_add(&a, "data/out", '2', "/../../../etc/passwd", NULL, 0);
    tar_add(&a, "data/self", '2', "self", NULL, 0);
    tar_add(&a, "data/self/x", '0', "", "x", 1);
    tar_add(&a, "data/hard", '1', "data/nothing", NULL, 0);
    GOOD_LAST();
    CHECK_STR(found(&a, a.n + 1024), "0");
    CHECK_STR(out1.s, "/data\n/data/first\n/data/out\n/data/self\n/data/last\n");
    free(a.p);
}

static void archives_that_lie(void) {
    archive a = {NULL, 0};
    uint8_t *h;
    size_t i;
    NEED("busybox");
    NEED("linux");
    GOOD_FIRST(); /* sizes */
    h = tar_add(&a, "data/big", '0', "", "x", 1);
    memcpy(h + 124, "77777777777", 12);
    tar_sum(h);
    CHECK_STR(found(&a, a.n + 1024), "0");
    CHECK_STR(out1.s, "/data\n/data/first\n");
    CHECK_IN(made.s, "its size is wrong");
    memset(h + 124, 0xff, 12);
    tar_sum(h);
    CHECK_STR(found(&a, a.n + 1024), "0");
    CHECK_STR(out1.s, "/data\n/data/first\n");
    memset(h + 124, 0, 12);
    h[124] = 0x80;
    memset(h + 128, 0xff, 8);
    tar_sum(h);
    CHECK_STR(found(&a, a.n + 1024), "0");
    CHECK_STR(out1.s, "/data\n/data/first\n");
    GOOD_FIRST(); /* checksums */
    h = tar_add(&a, "data/sum", '0', "", "x", 1);
    h[0] ^= 1;
    CHECK_STR(found(&a, a.n + 1024), "0");
    CHECK_STR(out1.s, "/data\n/data/first\n");
    CHECK_IN(made.s, "checksum");
    GOOD_FIRST(); /* cut off anywhere */
    GOOD_LAST();
    for (i = 1; i < a.n; i += is_slow ? 397 : 61) {
        found(&a, i);
        CHECK_STR(out1.s, i < 513 ? "" : i < 1537 ? "/data\n/data/first\n" : "/data\n/data/first\n/data/last\n");
        if (i % 1024 && i % 1024 <= 512) CHECK_IN(made.s, "the archive of files ends at");
    }
    CHECK_STR(found(&a, 1536), "0");
    CHECK_STR(out1.s, "/data\n/data/first\n");
    free(a.p);
}

/* ---- rows ---- */

// clang-format off
#define EACH_BASIC(X, kind) X(kind, O0) X(kind, O2) X(kind, O3) X(kind, v2)
#define ALL_BASIC(X) EACH_BASIC(X, musl) EACH_BASIC(X, glibc) EACH_BASIC(X, pie) EACH_BASIC(X, clang)
#define BASIC(kind, level) static void basic_##kind##_##level(void) { run_named("basic." #kind "." #level); }
ALL_BASIC(BASIC)
#define PROGRAMS(X) \
    X(lua) X(sqlite) X(cpp) X(rust) X(rust_pie) X(go_linked) X(debian) X(cat) X(lua_program) X(lua_musl) X(lua_script) \
    X(sqlite_program) X(busybox_sha256) X(busybox_ls) X(busybox_awk) X(bash) X(zsh) X(mksh) X(sash) X(python) X(python_script) X(go)
#define PROGRAM(name) static void program_##name(void) { run_named(#name); }
PROGRAMS(PROGRAM)

#define BASIC_ROW(kind, level) TEST(basic_##kind##_##level),
#define PROGRAM_ROW(name) TEST(program_##name),
static const test_row tests[] = {
    ALL_BASIC(BASIC_ROW) PROGRAMS(PROGRAM_ROW)
    TEST(clones_differ), TEST(clones_differ_in_openssl), TEST(clocks_never_go_back), TEST(ends_are_typed),
     TEST(stack_overflow_is_a_typed_fault),
    TEST(heap_exhaustion_is_enomem), TEST(defaults_are_enough), TEST(time_limit_ends_a_spin), TEST(refused_calls), TEST(programs_that_end_badly), TEST(waits_as_it_was), TEST(feeds_what_the_heap_holds), TEST(begins_with_its_own_random),
     TEST(minigzip_is_byte_equal),
    TEST(bad_binaries), TEST(bad_runtimes), TEST(bad_arguments), TEST(archives_that_lead_out), TEST(archives_that_lie)};
// clang-format on

int main(int argc, char **argv) {
    is_slow = getenv("SVM") && *getenv("SVM");
    if (argc == 4 && !strcmp(argv[1], "--fresh")) return fresh(argv[2], argv[3]);
    snprintf(dir, sizeof(dir), "%.100s/test_programs.%d", getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp", (int)getpid());
    return TEST_MAIN(tests, argc, argv);
}

/* fuzz_mutate.h - part of fuzz.c: mutators that know what they change. JSON text as a tree of values, ELF files as fields of
   headers and tables, messages as rows of words. Each falls back to libFuzzer's own for a part of the changes. */
#ifndef FUZZ_MUTATE_H
#define FUZZ_MUTATE_H
#include <elf.h>

size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max);

static uint64_t mutate_state;
static uint32_t below(uint32_t n) { /* splitmix64 */
    uint64_t z = mutate_state += 0x9e3779b97f4a7c15ull;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ z >> 27) * 0x94d049bb133111ebull;
    return n ? (uint32_t)((z ^ z >> 31) >> 16) % n : 0;
}

static const uint64_t edges[] = {0, 1, 2, 3, 7, 8, 15, 16, 17, 31, 32, 33, 63, 64, 127, 128, 129, 255, 256, 257, 300, 1023, 1024, 1025,
    4095, 4096, 4097, 8192, 12288, 32767, 32768, 65535, 65536, 65537, 69632, 1 << 20, (1 << 20) + 1, 1 << 21, 0x3fffff, 0x400000,
    8388607, 8388608, 8388609, 0x7fffffff, 0x80000000, 0xfffff000, 0xfffffff0, 0xfffffff1, 0xffffffff, 0x100000000, 0x3ffffffff,
    0x400000000, 0x800000000, 0x7effffe00000, 0x7f0000000000, 1ull << 53, (1ull << 53) + 1, 1ull << 62, 1ull << 63, (1ull << 63) - 1,
    UINT64_MAX - 4095, UINT64_MAX - 7, UINT64_MAX - 1, UINT64_MAX};
static uint64_t edge(void) { return edges[below(sizeof(edges) / sizeof(edges[0]))]; }

/* Inputs that were good: most that are made of others are not, and stop at the first check. */
#define GOOD 64
static struct { uint8_t *data; size_t size; } good[GOOD];
static uint32_t good_num;
static void good_add(const uint8_t *p, size_t size) {
    const uint32_t at = good_num < GOOD ? good_num++ : below(GOOD);
    free(good[at].data);
    good[at].data = (uint8_t *)malloc(size + 1);
    good[at].size = size;
    memcpy(good[at].data, p, size);
}
static size_t good_take(uint8_t *to, size_t size, size_t max) {
    const uint32_t at = below(good_num);
    if (!good_num || good[at].size > max) return size;
    memcpy(to, good[at].data, good[at].size);
    return good[at].size;
}

/* Replaces bytes [from, to) of text by `with`; the new size, or the old one when it does not fit. */
static size_t replace(uint8_t *text, size_t size, size_t max, size_t from, size_t to, const void *with, size_t n) {
    if (from > to || to > size || size - (to - from) + n > max) return size;
    memmove(text + from + n, text + to, size - to);
    memcpy(text + from, with, n);
    return size - (to - from) + n;
}

/* ---- JSON ---- */

#define JSON_NODES 4096
typedef struct json_node { /* a value: text [from, to); a member's name begins at `name`, else name == from */
    uint32_t name, from, to, parent;
    char kind;             /* { [ " or b, a bare word or number */
} json_node;

static struct json_tree {
    const uint8_t *text;
    size_t size, at;
    uint32_t num;
    json_node nodes[JSON_NODES];
} json;

static void json_blank(void) {
    while (json.at < json.size && strchr(" \t\r\n", json.text[json.at]) && json.text[json.at]) json.at++;
}

static void json_skip_string(void) {
    for (json.at++; json.at < json.size && json.text[json.at] != '"'; json.at++)
        if (json.text[json.at] == '\\') json.at++;
    json.at = json.at < json.size ? json.at + 1 : json.size;
}

/* Reads one value, however broken; false when there is none. */
static bool json_value(uint32_t parent, uint32_t depth) {
    json_node *n = &json.nodes[json.num];
    const uint32_t me = json.num;
    char c;
    json_blank();
    if (json.at >= json.size || json.num == JSON_NODES || depth > 40) return false;
    n->name = n->from = (uint32_t)json.at;
    n->parent = parent;
    c = (char)json.text[json.at];
    if (strchr(",]}:", c)) return false;
    json.num++;
    n->kind = c == '{' || c == '[' || c == '"' ? c : 'b';
    if (c == '"') json_skip_string();
    else if (n->kind == 'b')
        while (json.at < json.size && !strchr(",]}:[{\" \t\r\n", json.text[json.at])) json.at++;
    else {
        json.at++;
        for (;;) {
            size_t name;
            uint32_t child = json.num;
            json_blank();
            name = json.at;
            if (c == '{' && json.at < json.size && json.text[json.at] == '"') {
                json_skip_string();
                json_blank();
                if (json.at < json.size && json.text[json.at] == ':') json.at++;
            }
            if (!json_value(me, depth + 1)) break;
            if (c == '{') json.nodes[child].name = (uint32_t)name;
            json_blank();
            if (json.at >= json.size || json.text[json.at] != ',') break;
            json.at++;
        }
        json_blank();
        if (json.at < json.size && strchr("]}", json.text[json.at])) json.at++;
    }
    n->to = (uint32_t)json.at;
    return true;
}

static const char *const json_words[] = {"null", "true", "false", "{}", "[]", "\"\"", "-1", "-0", "00", "1.5", "1e3", "\"\\u0000\"",
    "\"\\ud800\"", "\"\\ud83d\\ude00\"", "\"\\u0041\\n\\t\\\"\\\\\\/\\b\\f\\r\"", "\"\xc3\xbc\"", "\"\xf0\x9f\x98\x80\"", "\"\xed\xa0\x80\"",
    "\"\xe2\x82\xac\"", "\"\xc0\x80\"", "\"\xff\"", "\"\x7f\"", "\"\x01\"", "\"$a0\"", "\"$b0\"", "\"$c0\"", "\"$m0\"", "\"$m1\"", "\"$m2\"",
    "\"$k0\"", "\"$k1\"", "\"$k2\"", "\"$n0\"", "\"$f0\"", "$A0", "$B0", "$C0", "$M0", "$M1", "$K0", "$K1", "\"sha512:00\"", "\"sha256:00\"",
    "\"0x0\"", "\"0x1f\"", "\"0x01\"", "\"0xFF\"", "\"0x\"", "\"x86_64\"", "\"aarch64\"", "\"text\"", "\"rodata\"", "\"data\"", "\"tls\"",
    "\"heap\"", "\"stack\"", "\"mailbox\"", "\"identity\"", "\"void()\"", "\"i32(i32,str)\"", "\"bytes(bool,f32,f64)\"", "\"sse3\"",
    "\"zzz\"", "\"v1\"", "\"v2\"", "\"read\"", "\"private\"", "\"shared\"", "\"host\"", "\"optional\"", "\"layers\"", "\"0x7f0000000000\"",
    "\"0x7f0000200000\"", "\"0x7f0fffe00000\"", "17179869184", "68719476736", "{\"org.opencontainers.image.ref.name\":\"v1\"}", "{\"a\":\"b\"}", "{\"a\":1}", "[0,1,0,0]", "[1,1,1,1]",
    "\"application/vnd.oci.image.manifest.v1+json\"", "\"application/vnd.oci.image.index.v1+json\"",
    "\"application/vnd.hlsnap.snapshot.v1\"", "\"application/vnd.hlsnap.snapshot.memory.v1\"",
    "\"application/vnd.hlsnap.snapshot.chunks.v1\"", "\"application/vnd.hlsnap.snapshot.config.v1+json\"", "\"a/b\"", "\"a/\"", "\"1.0.0\""};

/* Some value, as text. */
static size_t json_make(char *to, size_t cap, bool number) {
    static const char hex[] = "0123456789abcdefxg";
    size_t i, n;
    switch (number ? 4 + below(2) : below(7)) {
    case 0: case 1: case 2: return (size_t)snprintf(to, cap, "%s", json_words[below(sizeof(json_words) / sizeof(json_words[0]))]);
    case 3:
        n = below(4) ? below(80) : below((uint32_t)cap - 2);
        to[0] = '"';
        for (i = 1; i <= n; i++) to[i] = hex[below(18)];
        to[n + 1] = '"';
        return n + 2;
    case 4: return (size_t)snprintf(to, cap, "%llu", (unsigned long long)edge());
    case 5: return (size_t)snprintf(to, cap, "%u", below(40));
    default: return (size_t)snprintf(to, cap, "\"0x%llx\"", (unsigned long long)(edge() + (below(2) ? 0 : 4096 * (uint64_t)below(64))));
    }
}

static uint64_t json_number(const uint8_t *text, const json_node *n) { /* or of a "0x.." string */
    char digits[40];
    const size_t len = n->to - n->from < sizeof(digits) ? n->to - n->from : sizeof(digits) - 1;
    memcpy(digits, text + n->from, len);
    digits[len] = 0;
    return strtoull(digits + (n->kind == '"' && len), NULL, n->kind == '"' ? 16 : 10);
}

static const json_node *json_pick(void);

/* A number becomes one near it, or what two others make: bounds are sums and differences. */
static size_t json_nudge(uint8_t *text, size_t size, size_t max, const json_node *n) {
    static const int64_t steps[] = {-4096, -16, -2, -1, 1, 2, 16, 4096, 2 << 20};
    const bool hex = n->kind == '"';
    uint64_t v = json_number(text, n), a, b;
    char now[40];
    if (n->to - n->from >= sizeof(now)) return size;
    switch (below(5)) {
    case 0: v += (uint64_t)steps[below(9)]; break;
    case 1: v = below(2) ? v * 2 : v / 2; break;
    case 2:
        a = json_number(text, json_pick());
        b = json_number(text, below(2) ? json_pick() : n + 1 < json.nodes + json.num ? n + 1 : n);
        v = (below(2) ? a + b : a - b) + below(3) - 1;
        break;
    default: v += below(2) ? 1 : UINT64_MAX; break;
    }
    return replace(text, size, max, n->from, n->to, now, (size_t)snprintf(now, sizeof(now), hex ? "\"0x%llx\"" : "%llu", (unsigned long long)v));
}

/* Many copies of an element, in which each number grows by a step of its own: rows of a table that ascends. */
static size_t json_repeat(uint8_t *text, size_t size, size_t max, const json_node *n) {
    static char rows[1 << 16];
    const uint32_t times = below(16) ? 1 + below(6) : below(1200);
    uint64_t steps[8], v;
    size_t used = 0;
    uint32_t i, k;
    for (k = 0; k < 8; k++) steps[k] = below(3) ? below(4) : 4096ull * below(20);
    for (i = 1; i <= times; i++) {
        size_t at = n->name, from = used;
        for (rows[used++] = ',', k = 0; at < n->to && used + 40 < sizeof(rows);) {
            const char *end;
            if (text[at] < '0' || text[at] > '9' || (at > n->name + 1 && strchr("xv_abcdef.", text[at - 1]) && text[at - 2] != '0')) {
                rows[used++] = (char)text[at++];
                continue;
            }
            char number[40];
            const bool hex = at > n->name + 1 && text[at - 1] == 'x' && text[at - 2] == '0';
            size_t len = n->to - at < 30 ? n->to - at : 30;
            memcpy(number, text + at, len);
            number[len] = 0;
            v = strtoull(number, (char **)(uintptr_t)&end, hex ? 16 : 10);
            if (text[at] == '0' && at + 1 < n->to && text[at + 1] == 'x') { /* the prefix */
                rows[used++] = (char)text[at++];
                continue;
            }
            at += (size_t)(end - number) ? (size_t)(end - number) : 1;
            used += (size_t)snprintf(rows + used, 32, hex ? "%llx" : "%llu", (unsigned long long)(v + i * steps[k++ % 8]));
        }
        if (at < n->to) {
            used = from;
            break;
        }
    }
    return replace(text, size, max, n->to, n->to, rows, used);
}

/* Swaps the texts of two values, one not inside the other. */
static size_t json_swap(uint8_t *text, size_t size, const json_node *a, const json_node *b) {
    static uint8_t copy[1 << 20];
    size_t n = 0;
    if (a->from > b->from) {
        const json_node *t = a;
        a = b;
        b = t;
    }
    if (a->to > b->from || size > sizeof(copy)) return size;
    memcpy(copy, text + b->from, n = b->to - b->from);
    memcpy(copy + n, text + a->to, b->from - a->to);
    n += b->from - a->to;
    memcpy(copy + n, text + a->from, a->to - a->from);
    memcpy(text + a->from, copy, b->to - a->from);
    return size;
}

/* Inside a string: a byte, an escape, many bytes. */
static size_t json_string(uint8_t *text, size_t size, size_t max, size_t from, size_t to) {
    static const char *const parts[] = {"\\u0041", "\\ud83d", "\\ude00", "\\n", "\\", "\xc3\xa4", "\xe2\x82\xac", ".", "-", "_", "/", ":", "0", "A",
                                        "z", "$", ",", "(", ")", "i32", "str", " ", "<"};
    char longer[300], part[40] = "";
    uint32_t i;
    size_t at;
    for (i = 1 + below(3); i; i--) strcat(part, parts[below(sizeof(parts) / sizeof(parts[0]))]);
    if (to - from < 2) return size;
    at = from + 1 + below((uint32_t)(to - from - 1));
    switch (below(4)) {
    case 0: return replace(text, size, max, at, at, part, strlen(part));
    case 1: return replace(text, size, max, at, at < to - 1 ? at + 1 : at, part, strlen(part));
    case 2: return replace(text, size, max, at, at + below((uint32_t)(to - at)), "", 0);
    default:
        memset(longer, 'a' + (int)below(6), sizeof(longer));
        return replace(text, size, max, at, at, longer, below(2) ? below(70) : below(sizeof(longer)));
    }
}

static size_t json_nest(uint8_t *text, size_t size, size_t max, const json_node *n) {
    char open[60];
    uint32_t i, depth = below(4) ? 1 + below(3) : below(20);
    for (i = 0; i < depth; i++) open[i] = '[';
    size = replace(text, size, max, n->from, n->from, open, depth);
    for (i = 0; i < depth; i++) open[i] = ']';
    return replace(text, size, max, n->to + depth <= size ? n->to + depth : size, n->to + depth <= size ? n->to + depth : size, open, depth);
}

static size_t json_delete(uint8_t *text, size_t size, size_t max, const json_node *n) {
    size_t from = n->name, to = n->to;
    if (to < size && text[to] == ',') to++;
    else if (from && text[from - 1] == ',') from--;
    return replace(text, size, max, from, to, "", 0);
}

/* Any value; or one that is as likely as its siblings, and they as their parents': a row of many is no more than a member. */
static const json_node *json_pick(void) {
    uint32_t at = 0, i, seen;
    if (below(2)) return &json.nodes[below(json.num)];
    for (;;) {
        uint32_t child = 0;
        for (i = at + 1, seen = 0; i < json.num; i++)
            if (json.nodes[i].parent == at && !below(++seen)) child = i;
        if (!child || !below(8)) return &json.nodes[at];
        at = child;
    }
}

static size_t json_mutate_once(uint8_t *text, size_t size, size_t max) {
    static char other[1 << 16];
    const json_node *n, *m;
    size_t len;
    json.text = text;
    json.size = size;
    json.at = json.num = 0;
    if (!below(10) || !json_value(0, 0) || !json.num) return LLVMFuzzerMutate(text, size, max);
    n = json_pick();
    m = &json.nodes[below(json.num)];
    switch (below(18)) {
    case 0: return json_delete(text, size, max, n);
    case 1: case 2:
        len = m->to - m->from;
        if (len > sizeof(other)) return size;
        memcpy(other, text + m->from, len);
        return replace(text, size, max, n->from, n->to, other, len);
    case 3: case 4: case 5:
        len = json_make(other, 4096, n->kind == 'b' && below(4));
        return replace(text, size, max, n->from, n->to, other, len);
    case 6: return json_swap(text, size, n, m);
    case 7: case 8: case 14: case 15: case 16: return json_nudge(text, size, max, n);
    case 9: case 10: return json_repeat(text, size, max, n);
    case 11: return n->kind == '"' ? json_string(text, size, max, n->from, n->to) : json_nudge(text, size, max, n);
    case 12: return n->name < n->from ? json_string(text, size, max, n->name, n->from - 1) : json_nest(text, size, max, n);
    case 13: return below(4) ? json_swap(text, size, n, m) : json_nest(text, size, max, n);
    default: /* the neighbour's member once more, or one that nobody knows */
        len = m->to - m->name;
        if (len + 1 > sizeof(other)) return size;
        other[0] = ',';
        memcpy(other + 1, text + m->name, len++);
        return replace(text, size, max, n->to, n->to, other, len);
    }
}

static size_t json_mutate(uint8_t *text, size_t size, size_t max) {
    uint32_t i, times = below(4) ? 1 : 1 + below(5);
    if (below(2)) size = good_take(text, size, max);
    for (i = 0; i < times; i++) {
        const size_t now = json_mutate_once(text, size, max);
        if (now) size = now;
    }
    return size;
}

/* ---- ELF ---- */

typedef struct elf_field { uint64_t at; uint32_t size; const uint32_t *row; } elf_field; /* of a row of such sizes */
static elf_field elf_fields[4096];
static uint32_t elf_num;

static uint64_t elf_word(const uint8_t *p, size_t size, uint64_t at, uint32_t n) {
    uint64_t v = 0;
    if (n <= size && at <= size - n) memcpy(&v, p + at, n);
    return v;
}

static void elf_row(uint64_t at, const uint32_t *sizes, size_t size) { /* fields one behind the other; sizes end with 0 */
    const uint32_t *row = sizes;
    for (; *sizes && elf_num < 4096; at += *sizes++)
        if (at < size && *sizes <= size - at) {
            elf_fields[elf_num].at = at;
            elf_fields[elf_num].row = row;
            elf_fields[elf_num++].size = *sizes;
        }
}

/* Where a file address stands in the file. */
static uint64_t elf_offset(const uint8_t *p, size_t size, uint64_t vaddr) {
    const uint64_t phoff = elf_word(p, size, offsetof(Elf64_Ehdr, e_phoff), 8);
    uint32_t i, num = (uint32_t)elf_word(p, size, offsetof(Elf64_Ehdr, e_phnum), 2);
    for (i = 0; i < num && i < 32; i++) {
        const uint64_t at = phoff + i * sizeof(Elf64_Phdr), from = elf_word(p, size, at + offsetof(Elf64_Phdr, p_vaddr), 8);
        if (elf_word(p, size, at, 4) == PT_LOAD && vaddr >= from && vaddr - from < elf_word(p, size, at + offsetof(Elf64_Phdr, p_filesz), 8))
            return elf_word(p, size, at + offsetof(Elf64_Phdr, p_offset), 8) + vaddr - from;
    }
    return UINT64_MAX;
}

static void elf_table(const uint8_t *p, size_t size, uint64_t vaddr, uint32_t step, const uint32_t *sizes, uint64_t bytes) {
    const uint64_t at = elf_offset(p, size, vaddr);
    uint64_t i;
    for (i = 0; at < size && i + step <= bytes && i < 64ull * step; i += step) elf_row(at + i, sizes, size);
}

/* Collects the fields of headers and of the tables that the dynamic section names. */
static void elf_collect(const uint8_t *p, size_t size) {
    static const uint32_t header[] = {4, 1, 1, 1, 1, 8, 2, 2, 4, 8, 8, 8, 4, 2, 2, 2, 2, 2, 2, 0}, segment[] = {4, 4, 8, 8, 8, 8, 8, 8, 0},
                          dyn[] = {8, 8, 0}, rela[] = {8, 4, 4, 8, 0}, sym[] = {4, 1, 1, 2, 8, 8, 0}, relr[] = {8, 0}, note[] = {4, 4, 4, 4, 4, 0};
    const uint64_t phoff = elf_word(p, size, offsetof(Elf64_Ehdr, e_phoff), 8);
    const uint32_t num = (uint32_t)elf_word(p, size, offsetof(Elf64_Ehdr, e_phnum), 2);
    uint64_t of[40] = {0}, at;
    uint32_t i, k;
    elf_num = 0;
    elf_row(0, header, size);
    for (i = 0; i < num && i < 24; i++) elf_row(phoff + i * sizeof(Elf64_Phdr), segment, size);
    for (i = 0; i < num && i < 24; i++) {
        const uint64_t ph = phoff + i * sizeof(Elf64_Phdr), offset = elf_word(p, size, ph + offsetof(Elf64_Phdr, p_offset), 8);
        const uint64_t type = elf_word(p, size, ph, 4);
        if (type == PT_NOTE)
            for (k = 0; k < 3; k++) elf_row(offset + k * 36, note, size);
        for (at = offset; type == PT_DYNAMIC && at < size && at < offset + 32 * 16; at += 16) {
            const uint64_t tag = elf_word(p, size, at, 8);
            elf_row(at, dyn, size);
            if (tag < 40) of[tag] = elf_word(p, size, at + 8, 8);
        }
    }
    if (of[DT_RELA]) elf_table(p, size, of[DT_RELA], 24, rela, of[DT_RELASZ]);
    if (of[DT_JMPREL]) elf_table(p, size, of[DT_JMPREL], 24, rela, of[DT_PLTRELSZ]);
    if (of[36]) elf_table(p, size, of[36], 8, relr, of[35]);
    if (of[DT_SYMTAB]) elf_table(p, size, of[DT_SYMTAB], 24, sym, 8 * 24);
}

/* Any field; or one of a kind of row that is as likely as each other kind. */
static const elf_field *elf_pick(void) {
    const uint32_t *row = NULL;
    uint32_t i, seen = 0, kinds = 0, at = below(elf_num);
    if (below(4) == 0) return &elf_fields[at];
    for (i = 0; i < elf_num; i++) /* rows of a kind stand together */
        if ((!i || elf_fields[i].row != elf_fields[i - 1].row) && !below(++kinds)) row = elf_fields[i].row;
    for (i = 0; i < elf_num; i++)
        if (elf_fields[i].row == row && !below(++seen)) at = i;
    return &elf_fields[at];
}

static size_t elf_mutate_once(uint8_t *p, size_t size, size_t max) {
    static const int64_t steps[] = {-4096, -24, -16, -8, -1, 1, 7, 8, 16, 24, 56, 4096, 65536, 1 << 21};
    static const uint64_t types[] = {PT_LOAD, PT_DYNAMIC, PT_INTERP, PT_NOTE, PT_TLS, PT_GNU_RELRO, DT_NEEDED, DT_RELA, DT_RELASZ, DT_JMPREL,
                                     DT_PLTRELSZ, DT_SYMTAB, DT_STRTAB, DT_STRSZ, 35, 36, R_X86_64_RELATIVE, R_X86_64_64, R_X86_64_GLOB_DAT,
                                     R_X86_64_JUMP_SLOT, R_X86_64_DTPMOD64, R_X86_64_DTPOFF64, R_X86_64_TPOFF64, R_X86_64_IRELATIVE,
                                     R_X86_64_COPY, SHN_ABS, STB_WEAK << 4, STT_GNU_IFUNC, 4, 5, 6};
    const elf_field *f, *g;
    uint64_t v, w;
    elf_collect(p, size);
    if (!elf_num || !below(6)) return LLVMFuzzerMutate(p, size, max);
    f = elf_pick();
    g = elf_pick();
    v = elf_word(p, size, f->at, f->size);
    w = elf_word(p, size, g->at, g->size);
    switch (below(8)) {
    case 0: v = edge(); break;
    case 1: v += (uint64_t)steps[below(14)]; break;
    case 2: v = w; break;
    case 3: v = w + (uint64_t)steps[below(14)]; break;
    case 4: v = types[below(sizeof(types) / sizeof(types[0]))]; break;
    case 5: v = size + (uint64_t)steps[below(14)]; break;
    case 6: v = below(64); break;
    default: /* a row over another one */
        w = below(2) ? 56 : below(2) ? 24 : 16;
        if (f->at + w <= size && g->at + w <= size) memmove(p + f->at, p + g->at, w);
        return size;
    }
    memcpy(p + f->at, &v, f->size);
    return size;
}

static size_t elf_mutate(uint8_t *p, size_t size, size_t max) {
    uint32_t i, times = 1 + below(4);
    if (!below(3)) size = good_take(p, size, max);
    for (i = 0; i < times; i++) size = elf_mutate_once(p, size, max);
    return size;
}

/* ---- messages: words at multiples of 4 and 8 ---- */

static size_t words_mutate(uint8_t *p, size_t size, size_t max) {
    uint32_t i, times = 1 + below(3), width;
    uint64_t v = 0, at;
    if (!below(3)) size = good_take(p, size, max);
    for (i = 0; i < times; i++) {
        if (size < 16 || !below(3)) {
            size = LLVMFuzzerMutate(p, size, max);
            continue;
        }
        width = below(3) ? 4 : below(2) ? 8 : 1;
        at = below((uint32_t)(size - width + 1));
        if (below(4)) at &= ~3ull;
        memcpy(&v, p + at, 8 < size - at ? 8 : size - at);
        v = below(3) ? edge() : below(2) ? v + 8 * (uint64_t)below(9) - 32 : below(48);
        memcpy(p + at, &v, width);
    }
    return size;
}
#endif

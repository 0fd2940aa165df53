/* hlsnap_tool.c - makes, looks at, checks, runs, compares, draws snapshots in OCI Image Layouts; docs/tool.md says how. You learn:
   the whole of the store's interface, from the outside; and how a Linux program as it is becomes a snapshot that goes on.

   cc: cc -O2 -ffreestanding -nostdlib -static-pie -fno-stack-protector -I.. guests/linux.c -o linux.elf
   cc: cc -std=c11 -O2 -DEMBED_RUNTIME -I.. hlsnap_tool.c -lcjson -o hlsnap_tool
   run: ./hlsnap_tool --help */
#define HLSNAP_IMPLEMENTATION
#include "hlsnap.h"
#include "hlsnap_kvm.h"
#include "hlsnap_oci.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096u
#define MAX_LAYERS 128u   /* of a snapshot, by the format */
#define MAX_REGIONS 32u   /* likewise */
#define MAX_ROOMS (MAX_REGIONS + HLSNAP_MAX_MAPS)
#define MANY 1000000
#define NO_TIME UINT64_MAX
#define IMPORT_BYTES (16ull << 30) /* of an archive, where --max-bytes says nothing */
#define USAGE 2           /* exit status, as is HLSNAP_ERR_ARG's: 1 means that diff found differences */
#define TRY_AGAIN 75      /* exit status of what is transient, as EX_TEMPFAIL of <sysexits.h> */

typedef struct words { /* of an option that may stand there more than once */
    const char **at;
    size_t num;
} words;

typedef struct options {
    const char **args;
    int num_args, status; /* to exit with when all went well */
    bool json, json_lines, full, all, repair, raw, verify, any_cpu, tagged, untagged, reverse, dry_run, gc, help;
    bool until_input, words_over; /* of start: the program's own words have ended */
    const char *output, *match, *sort, *ref, *files, *input, *runtime, *cpu, *save_dir, *save_tag;
    words env, maps;
    uint64_t threads, grace_ms, timeout_ms, older_ms, newer_ms, limit, keep_last, max_bytes, wait_ms, heap, stack;
} options;

typedef struct command {
    const char *name, *args, *pairs; /* pairs: numbers of the args that may be DIR:REF, which is DIR and REF; !: DIR may be new */
    int min_args, max_args;
    const char *options, *help, *more;
    hlsnap_result (*run)(options *o, hlsnap_error *err);
} command;

static const command *current; /* for messages */
static const char *layout;     /* that the error is about, or NULL; likewise */

/* ---- errors ---- */

__attribute__((format(printf, 3, 4))) static hlsnap_result fails(hlsnap_error *err, hlsnap_result r, const char *fmt, ...) {
    va_list list;
    err->code = r;
    err->os_errno = r == HLSNAP_ERR_OS ? errno : 0;
    va_start(list, fmt);
    vsnprintf(err->msg, sizeof(err->msg), fmt, list);
    va_end(list);
    return r;
}

/* Passes on what came of a call on a layout: where a command has two, its message says which. */
static hlsnap_result in(const char *dir, hlsnap_result r) {
    if (r) layout = dir;
    return r;
}

static void *grow(void *p, size_t size) {
    p = realloc(p, size ? size : 1);
    if (p) return p;
    fprintf(stderr, "hlsnap_tool: %s: %s: %zu bytes\n", current->name, hlsnap_result_name(HLSNAP_ERR_MEMORY), size);
    exit(TRY_AGAIN);
}

static char *copy_of(const char *text, size_t n) {
    char *to = (char *)grow(NULL, n + 1);
    memcpy(to, text, n);
    to[n] = 0;
    return to;
}

/* ---- text: a layout may come from anywhere, and what stands in it may be meant for the terminal, not for the reader ---- */

typedef enum form { PLAIN, LINES /* \n and \t pass */, JSON, XML } form;
#define NO_CHARACTER 0x110000u

/* The character at *text, which moves behind it; NO_CHARACTER for a byte that is not UTF-8. */
static uint32_t decode(const char **text) {
    static const uint32_t least[] = {0, 0x80, 0x800, 0x10000};
    const char *s = *text;
    const unsigned first = (unsigned char)s[0];
    const unsigned more = first < 0xc2 ? 0 : first < 0xe0 ? 1 : first < 0xf0 ? 2 : first < 0xf5 ? 3 : 0;
    uint32_t c = more ? first & (0x3fu >> more) : first;
    unsigned i;
    *text = s + 1;
    if (first < 0x80) return c;
    for (i = 1; i <= more && ((unsigned char)s[i] & 0xc0) == 0x80; i++) c = c << 6 | ((unsigned char)s[i] & 0x3f);
    if (!more || i <= more || c < least[more] || c > 0x10ffff || (c >= 0xd800 && c < 0xe000)) return NO_CHARACTER;
    *text = s + 1 + more;
    return c;
}

/* Controls, and what changes the order or the look of the text around it. */
static bool is_hidden(uint32_t c) {
    return c < 0x20 || (c >= 0x7f && c < 0xa0) || c == 0xad || c == 0x61c || c == 0x180e || (c >= 0x200b && c < 0x2010) ||
           (c >= 0x2028 && c < 0x202f) || (c >= 0x2060 && c < 0x2070) || c == 0xfeff || (c >= 0xfff0 && c < 0xfffc) ||
           c == 0xfffe || c == 0xffff || (c >= 0xe0000 && c < 0xe1000);
}

/* The next character of *s, which moves behind it, as it may stand in what is written. */
static const char *next(const char **s, form f) {
    static char to[16];
    const char *start = *s;
    const uint32_t c = decode(s);
    const char *entity = c == '<' ? "&lt;" : c == '>' ? "&gt;" : c == '&' ? "&amp;" : c == '"' ? "&quot;" : NULL;
    if (f == XML && (entity || is_hidden(c) || c == NO_CHARACTER)) return entity ? entity : "\xef\xbf\xbd";
    if (f == JSON && (is_hidden(c) || c == NO_CHARACTER)) {
        if (c >= 0x10000 && c < NO_CHARACTER)
            snprintf(to, sizeof(to), "\\u%04x\\u%04x", 0xd7c0 + (c >> 10), 0xdc00 + (c & 0x3ff));
        else
            snprintf(to, sizeof(to), "\\u%04x", c == NO_CHARACTER ? 0xfffd : c);
    } else if (c == NO_CHARACTER || (is_hidden(c) && c < 0x80 && !(f == LINES && (c == '\n' || c == '\t'))))
        snprintf(to, sizeof(to), "\\x%02x", (unsigned char)*start);
    else if (is_hidden(c) && c >= 0x80)
        snprintf(to, sizeof(to), "\\u{%x}", c);
    else
        snprintf(to, sizeof(to), "%s%.*s", f == JSON && (c == '"' || c == '\\') ? "\\" : "", (int)(*s - start), start);
    return to;
}

static void put(FILE *f, form as, const char *s) {
    while (*s) fputs(next(&s, as), f);
}

/* Formatted, then made safe. Good until the 8th call after it. */
__attribute__((format(printf, 1, 2))) static const char *show(const char *fmt, ...) {
    static char ring[8][400];
    static unsigned at;
    char raw[512];
    char *to = ring[at++ % 8];
    const char *s = raw, *c;
    size_t n = 0;
    va_list list;
    va_start(list, fmt);
    vsnprintf(raw, sizeof(raw), fmt, list);
    va_end(list);
    while (*s && n + 20 < sizeof(ring[0])) {
        c = next(&s, PLAIN);
        memcpy(to + n, c, strlen(c));
        n += strlen(c);
    }
    memcpy(to + n, *s ? "..." : "", *s ? 4 : 1);
    return to;
}

static const char *human(uint64_t bytes) {
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
    double v = (double)bytes;
    size_t i;
    for (i = 0; v >= 999.95 && i + 1 < HLSNAP_COUNT(units); i++) v /= 1024;
    return i ? show("%.1f %s", v, units[i]) : show("%u B", (unsigned)bytes);
}

/* Of own_bytes: 0 is also what it is where it cannot be told. */
static const char *own(uint64_t bytes) { return bytes ? human(bytes) : "?"; }

static const char *brief(const hlsnap_oci_digest *d) { return show("%.19s", d->text); }

static unsigned long long llu(uint64_t v) { return v; } /* for %llu */

/* ---- the end of a command ---- */

/* The tags of a layout, as many as fit a line: whoever can run this may know them. */
static bool print_tag(const char *tag, const hlsnap_oci_digest *digest, uint64_t bytes, void *user) {
    size_t *left = (size_t *)user;
    const char *text = show("%s", tag);
    (void)digest, (void)bytes;
    if (!*tag) return true;
    if (strlen(text) + 1 > *left) return fputs(" ...", stderr), false;
    *left -= strlen(text) + 1;
    fprintf(stderr, " %s", text);
    return true;
}

static void print_tags(void) {
    size_t left = 300;
    hlsnap_error unused;
    fputs("; tags:", stderr);
    hlsnap_oci_list(layout, print_tag, &left, &unused);
    if (left == 300) fputs(" none", stderr);
}

static void print_error(hlsnap_result r, const hlsnap_error *err) {
    fprintf(stderr, "hlsnap_tool: %s: %s: ", current->name, hlsnap_result_name(r));
    if (layout) fprintf(stderr, "%s: ", show("%s", layout));
    fputs(show("%s", err->msg), stderr);
    if (r == HLSNAP_ERR_FUNCTION) fprintf(stderr, " (code %d)", err->user_code);
    if (r == HLSNAP_ERR_NOT_FOUND && layout && strstr(err->msg, "index.json: no ")) print_tags();
    if (r == HLSNAP_ERR_CONTRACT && strstr(err->msg, "maps: ") && strstr(err->msg, " is missing"))
        fputs("; --map NAME=PATH gives it one", stderr);
    fputs(hlsnap_result_transient(err) ? "; trying again may help\n" : "\n", stderr);
}

static int status_of(hlsnap_result r, const hlsnap_error *err) {
    return r == HLSNAP_ERR_ARG ? USAGE : hlsnap_result_transient(err) ? TRY_AGAIN : (int)r;
}

/* ---- tables ---- */

typedef struct table {
    const char *align; /* a letter for each column: l, r */
    char **rows;
    size_t num;
} table;

/* Columns end with \t; text of strangers goes through show first. */
__attribute__((format(printf, 2, 3))) static void row(table *t, const char *fmt, ...) {
    char text[1200];
    va_list list;
    va_start(list, fmt);
    vsnprintf(text, sizeof(text), fmt, list);
    va_end(list);
    if ((t->num & (t->num - 1)) == 0) t->rows = (char **)grow(t->rows, (2 * t->num + 1) * sizeof(t->rows[0]));
    t->rows[t->num++] = strcpy((char *)grow(NULL, strlen(text) + 1), text);
}

/* Columns that the text takes on the screen, up to \t. */
static size_t width_of(const char *s) {
    size_t n = 0;
    for (; *s && *s != '\t'; s++) n += ((unsigned char)*s & 0xc0) != 0x80;
    return n;
}

static void table_print(table *t) {
    size_t widest[16] = {0}, i, column;
    const char *s;
    for (i = 0; i < t->num; i++)
        for (s = t->rows[i], column = 0; t->align[column]; column++, s += strcspn(s, "\t"), s += *s == '\t')
            if (width_of(s) > widest[column]) widest[column] = width_of(s);
    for (i = 0; i < t->num; i++) {
        for (s = t->rows[i], column = 0; t->align[column]; column++, s += strcspn(s, "\t"), s += *s == '\t') {
            const int pad = (int)(widest[column] - width_of(s)), last = !t->align[column + 1];
            const bool right = t->align[column] == 'r';
            printf("%*s%.*s%*s%s", right ? pad : 0, "", (int)strcspn(s, "\t"), s, right || last ? 0 : pad, "",
                   last ? "\n" : "  ");
        }
        free(t->rows[i]);
    }
    free(t->rows);
    memset(t, 0, sizeof(*t));
}

/* As printf, but ' is ", %s a JSON string, %u a uint64_t, %x one as a hex string, %b a bool. */
static void json(const char *fmt, ...) {
    va_list list;
    va_start(list, fmt);
    for (; *fmt; fmt++) {
        if (*fmt != '%') {
            putchar(*fmt == '\'' ? '"' : *fmt);
            continue;
        }
        switch (*++fmt) {
        case 's': putchar('"'), put(stdout, JSON, va_arg(list, const char *)), putchar('"'); break;
        case 'u': printf("%llu", llu(va_arg(list, uint64_t))); break;
        case 'x': printf("\"0x%llx\"", llu(va_arg(list, uint64_t))); break;
        default: fputs(va_arg(list, int) ? "true" : "false", stdout);
        }
    }
    va_end(list);
}

/* ---- progress: a line on the terminal, if there is one, and an end by ^C ---- */

#define BAR_LEAST 20 /* columns of a terminal: in fewer there is no sense in it */
#define BAR_CELLS "########################"

static struct {
    bool on, drawn;
    const char *const *passes; /* what a command does, one after the other, each of them counted from 0; NULL: one thing */
    unsigned num, pass;
    double start, pass_start, seen, drawn_at;
    uint64_t done, total; /* of the pass, when it was seen last */
    struct sigaction before;
} bar;
static const char *const flatten_passes[] = {"read", "write"};
static const char *const diff_passes[] = {"hash A", "hash B", "compare"}; /* of diff --verify */
static volatile sig_atomic_t interrupted;

static void interrupt(int number) {
    (void)number;
    interrupted = 1;
}

static double seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* Of the terminal, as wide as it is now. */
static int columns(void) {
    const char *text = getenv("COLUMNS");
    const long n = text ? strtol(text, NULL, 10) : 0;
    struct winsize size;
    if (ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col) return size.ws_col;
    return n > 0 && n < 10000 ? (int)n : 80;
}

static void bar_clear(void) {
    if (bar.drawn) fputs("\r\033[K", stderr);
    bar.drawn = false;
}

/* One row, whatever its width: of a bar that wraps, only the last row could be cleared. The last column stays free, for there
   terminals do this and that. What does not fit goes: first the cells, then what stands behind them, then all of them. */
static void bar_draw(double part, double rate, double left) {
    const int wide = columns(), room = wide - 1;
    char head[60], tail[60];
    int cells, all = (int)sizeof(BAR_CELLS) - 1;
    if (wide < BAR_LEAST) {
        bar_clear();
        return;
    }
    left = left < 599999 ? left : 599999;
    snprintf(head, sizeof(head), "%s%s%s %3d%%", current->name, bar.passes ? " " : "", bar.passes ? bar.passes[bar.pass] : "",
             (int)(100 * part));
    snprintf(tail, sizeof(tail), " %s/s, %d:%02d left", human((uint64_t)rate), (int)(left / 60), (int)left % 60);
    cells = room - (int)strlen(head) - (int)strlen(tail) - 3;
    if (cells < 4) tail[0] = 0, cells = room - (int)strlen(head) - 3;
    if (cells < all) all = cells;
    if (all < 4) fprintf(stderr, "\r\033[K%.*s", room, head);
    else fprintf(stderr, "\r\033[K%s [%-*.*s]%s", head, all, (int)(all * part), BAR_CELLS, tail);
    bar.drawn = true;
}

static void bar_pass(unsigned pass, double start) {
    bar.pass = pass;
    bar.pass_start = bar.seen = start;
    bar.done = bar.total = 0;
    bar.drawn_at = 0;
}

static bool bar_step(uint64_t done, uint64_t total, void *user) {
    const double now = seconds();
    double part, rate;
    (void)user;
    if (total == UINT64_MAX) return !interrupted; /* it waits for another writer */
    /* the library does not say where flatten's second pass begins */
    if (bar.passes == flatten_passes && bar.pass == 0 && bar.total &&
        (done < bar.done || total != bar.total || bar.done == bar.total))
        bar_pass(1, bar.seen);
    bar.seen = now;
    bar.done = done;
    bar.total = total;
    if (bar.on && now - bar.drawn_at >= 0.1) {
        part = (bar.pass + (total ? (double)done / (double)total : 1)) / bar.num;
        rate = now > bar.pass_start ? (double)done / (now - bar.pass_start) : 0;
        bar_draw(part, rate, part > 0 ? (now - bar.start) * (1 - part) / part : 0);
        bar.drawn_at = now;
    }
    return !interrupted;
}

static hlsnap_oci_desc bar_begin(const options *o, const char *const *passes, unsigned num) {
    hlsnap_oci_desc desc = HLSNAP_ZERO;
    struct sigaction action;
    const long cpus = sysconf(_SC_NPROCESSORS_ONLN);
    const char *terminal = getenv("TERM");
    memset(&action, 0, sizeof(action));
    action.sa_handler = interrupt;
    action.sa_flags = (int)SA_RESETHAND; /* the second ^C ends the process */
    sigaction(SIGINT, NULL, &bar.before);
    if (bar.before.sa_handler != SIG_IGN) sigaction(SIGINT, &action, NULL); /* who started us wants us to go on */
    bar.on = isatty(STDERR_FILENO) && terminal && strcmp(terminal, "dumb") != 0;
    bar.passes = passes;
    bar.num = num;
    bar.start = seconds();
    bar_pass(0, bar.start);
    desc.progress = bar_step;
    desc.wait_ns = o->wait_ms * 1000000;
    desc.threads = (uint32_t)(o->threads ? o->threads : cpus < 1 ? 1 : cpus > 8 ? 8 : (uint64_t)cpus);
    return desc;
}

static void bar_end(void) {
    bar_clear();
    sigaction(SIGINT, &bar.before, NULL);
}

/* ---- refs ---- */

static bool is_directory(const char *path) {
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

/* The colon of DIR:REF, or NULL: the longest part in front of one that is a directory is DIR. A word that is a directory itself has
   none; one of which no part is a directory has one where the words are too few otherwise: then DIR is not there. */
static const char *colon_of(const char *word, bool must) {
    const char *name = strrchr(word, '/'), *at, *found = NULL;
    if (is_directory(word)) return NULL;
    for (at = word; (at = strchr(at, ':')); at++) {
        char *dir = copy_of(word, (size_t)(at - word));
        if (at > word && at[1] && is_directory(dir)) found = at;
        free(dir);
    }
    if (!found && must) found = strchr(name ? name : word, ':');
    return found && found > word && found[1] ? found : NULL;
}

/* Makes two args of each that is DIR:REF. A digest is no REF in a directory called sha256. */
static void split_pairs(options *o) {
    const char *pair = current->pairs;
    int i;
    for (; *pair; pair++) {
        const int at = *pair - '0';
        const bool must = pair[1] == '!' || (at + 1 < current->min_args && o->num_args < current->min_args);
        const char *word = at < o->num_args ? o->args[at] : NULL, *colon;
        pair += pair[1] == '!';
        if (!word || (at && at + 1 < o->num_args) || (at && strncmp(word, "sha256:", 7) == 0)) continue;
        if (!(colon = colon_of(word, must))) continue;
        for (i = o->num_args++; i > at + 1; i--) o->args[i] = o->args[i - 1];
        o->args[at] = copy_of(word, (size_t)(colon - word));
        o->args[at + 1] = colon + 1;
    }
}

typedef struct prefix {
    const char *text;
    hlsnap_oci_digest *found;
    unsigned num;
} prefix;

static bool match(const char *tag, const hlsnap_oci_digest *digest, uint64_t bytes, void *user) {
    prefix *p = (prefix *)user;
    (void)tag, (void)bytes;
    if (strncmp(digest->text, p->text, strlen(p->text)) != 0 || (p->num && strcmp(p->found->text, digest->text) == 0))
        return true;
    *p->found = *digest;
    return ++p->num < 2;
}

/* A ref whose digest is cut short, but to no less than 8 digits, is made whole. Tags have no colon. */
static hlsnap_result whole_ref(const char *dir, const char **ref, hlsnap_oci_digest *whole, hlsnap_error *err) {
    const size_t n = strlen(*ref);
    prefix p = {*ref, whole, 0};
    hlsnap_result r;
    if (n > 70 || strncmp(*ref, "sha256:", 7) != 0) return HLSNAP_OK;
    if (n < 15) return fails(err, HLSNAP_ERR_ARG, "'%s': of a digest, at least 8 digits", *ref);
    r = in(dir, hlsnap_oci_list(dir, match, &p, err));
    if (r) return r;
    if (p.num == 0) return in(dir, fails(err, HLSNAP_ERR_NOT_FOUND, "no snapshot's digest starts with '%s'", *ref));
    if (p.num > 1) return in(dir, fails(err, HLSNAP_ERR_AMBIGUOUS, "several snapshots' digests start with '%s'", *ref));
    *ref = whole->text;
    return HLSNAP_OK;
}

/* To look at, not to run: of whatever CPU, and not copied. */
static hlsnap_oci_desc looking(void) {
    hlsnap_oci_desc desc = HLSNAP_ZERO;
    desc.guard = HLSNAP_OCI_GUARD_NONE;
    desc.disable_verify = true;
    desc.any_cpu = true;
    return desc;
}

/* ---- a snapshot, open to be looked at ---- */

typedef struct view {
    const char *dir, *ref;
    hlsnap_oci_digest whole;
    hlsnap_oci_info oci;
    hlsnap_snapshot *s;
    hlsnap_snapshot_info info;
    hlsnap_oci_layer layers[MAX_LAYERS];
    uint64_t shown[MAX_LAYERS]; /* pages */
    uint32_t num_layers;
    size_t extent; /* where piece_at goes on */
} view;

static bool keep_layer(const hlsnap_oci_layer *layer, void *user) {
    view *v = (view *)user;
    v->layers[v->num_layers++] = *layer;
    return v->num_layers < MAX_LAYERS;
}

/* get_info verifies manifest and config; everything after it means the same digest, whatever becomes of the tag. */
static hlsnap_result view_open(view *v, const char *dir, const char *ref, const hlsnap_oci_desc *desc, hlsnap_error *err) {
    hlsnap_extent e;
    hlsnap_result r;
    size_t i;
    memset(v, 0, sizeof(*v));
    v->dir = dir;
    v->ref = ref;
    r = whole_ref(dir, &v->ref, &v->whole, err);
    if (r) return r;
    r = hlsnap_oci_get_info(dir, v->ref, &v->oci, err);
    if (!r) r = hlsnap_oci_load(dir, v->oci.digest.text, desc, &v->s, NULL, err);
    if (!r) r = hlsnap_oci_layers(dir, v->oci.digest.text, keep_layer, v, err);
    if (r) return in(dir, r);
    hlsnap_snapshot_get_info(v->s, &v->info);
    if (v->info.layers != v->num_layers) return in(dir, fails(err, HLSNAP_ERR_CHANGED, "the manifest changed"));
    for (i = 0; hlsnap_snapshot_extent(v->s, i, &e); i++) v->shown[e.layer] += e.pages;
    return HLSNAP_OK;
}

/* Stored pages of a region, or of a map as region_of has it. */
static uint64_t stored_in(const hlsnap_snapshot *s, const hlsnap_region *g) {
    hlsnap_extent e;
    uint64_t n = 0;
    size_t i;
    for (i = 0; hlsnap_snapshot_extent(s, i, &e); i++)
        if (e.gva >= g->gva && e.gva < g->gva + g->pages * PAGE) n += e.pages; /* an extent lies in one of them */
    return n;
}

/* A map as if it were a region. Stored: pages that no extent has are zero; those of a map that is not captured are the host's. */
static hlsnap_region region_of(const hlsnap_map *m) {
    const hlsnap_region g = {m->gva, (m->size + PAGE - 1) / PAGE, "map", m->mode != HLSNAP_MAP_READ, false, m->capture};
    return g;
}

/* Stored pages of maps. */
static uint64_t stored_in_maps(const hlsnap_snapshot *s) {
    hlsnap_map m;
    uint64_t n = 0;
    size_t i;
    for (i = 0; hlsnap_snapshot_map(s, i, &m); i++) {
        const hlsnap_region g = region_of(&m);
        n += stored_in(s, &g);
    }
    return n;
}

static const char *mode_of(const hlsnap_map *m) {
    return m->mode == HLSNAP_MAP_READ ? "read" : m->mode == HLSNAP_MAP_PRIVATE ? "private" : "shared";
}

/* Where its content comes from. */
static const char *source_of(const hlsnap_map *m) { return m->capture ? "layers" : m->optional ? "optional" : "host"; }

static const char *rights(const hlsnap_region *g) { return show("r%c%c", g->writable ? 'w' : '-', g->executable ? 'x' : '-'); }

/* ---- the entries of a layout, chosen and put in order: for ls, du, prune and verify --all ---- */

typedef struct listed {
    char *tag; /* "" = none */
    hlsnap_result r;
    hlsnap_oci_info info; /* where r is an error the digest only */
    size_t number, first; /* in the order of the index; and of the first entry of the same snapshot: group_entries */
    bool goes;            /* prune */
} listed;

typedef struct listing {
    const options *o;
    listed *of;
    size_t num;
    int64_t now; /* seconds since 1970 */
} listing;

/* What is not known to be older or younger is neither. */
static bool is_wanted(const options *o, int64_t now, const char *tag, const hlsnap_oci_info *i) {
    const int64_t age = now - i->created;
    if ((o->tagged && !tag[0]) || (o->untagged && tag[0])) return false;
    if (o->match && (!tag[0] || fnmatch(o->match, tag, 0) != 0)) return false;
    if (o->older_ms == NO_TIME && o->newer_ms == NO_TIME) return true;
    if (!i->created) return false;
    return (o->older_ms == NO_TIME || age > (int64_t)(o->older_ms / 1000)) &&
           (o->newer_ms == NO_TIME || age < (int64_t)(o->newer_ms / 1000));
}

static bool keep_entry(const char *tag, hlsnap_result r, const hlsnap_oci_info *info, void *user) {
    listing *all = (listing *)user;
    listed e = {NULL, r, *info, all->num, all->num, false};
    if (!is_wanted(all->o, all->now, tag, info)) return true;
    e.tag = copy_of(tag, strlen(tag));
    if ((all->num & (all->num - 1)) == 0) all->of = (listed *)grow(all->of, (2 * all->num + 1) * sizeof(listed));
    all->of[all->num++] = e;
    return true;
}

static int compare_u64(uint64_t a, uint64_t b) { return a < b ? -1 : a > b; }

static int by_number(const void *a, const void *b) { return compare_u64(((const listed *)a)->number, ((const listed *)b)->number); }

static int by_name(const void *a, const void *b) {
    const listed *x = (const listed *)a, *y = (const listed *)b;
    const int order = strcmp(x->tag, y->tag);
    return order ? order : by_number(a, b);
}

static int by_digest(const void *a, const void *b) {
    const listed *x = (const listed *)a, *y = (const listed *)b;
    const int order = strcmp(x->info.digest.text, y->info.digest.text);
    return order ? order : by_number(a, b);
}

static int by_first(const void *a, const void *b) {
    const int order = compare_u64(((const listed *)a)->first, ((const listed *)b)->first);
    return order ? order : by_number(a, b);
}

/* Largest first, and newest; what is not known, last. */
static int by_size(const void *a, const void *b) {
    const int order = compare_u64(((const listed *)b)->info.bytes, ((const listed *)a)->info.bytes);
    return order ? order : by_number(a, b);
}

static int by_own(const void *a, const void *b) {
    const int order = compare_u64(((const listed *)b)->info.own_bytes, ((const listed *)a)->info.own_bytes);
    return order ? order : by_number(a, b);
}

static int by_created(const void *a, const void *b) {
    const int order = compare_u64((uint64_t)((const listed *)b)->info.created, (uint64_t)((const listed *)a)->info.created);
    return order ? order : by_number(a, b);
}

static const struct sort_row { const char *name; int (*order)(const void *a, const void *b); } sort_rows[] = {
    {"name", by_name}, {"size", by_size}, {"own", by_own}, {"created", by_created}};

static const struct sort_row *find_sort(const char *name) {
    size_t i;
    for (i = 0; i < HLSNAP_COUNT(sort_rows); i++)
        if (strcmp(sort_rows[i].name, name) == 0) return &sort_rows[i];
    return NULL;
}

static void sort_entries(listing *all, int (*order)(const void *a, const void *b)) {
    if (all->num) qsort(all->of, all->num, sizeof(listed), order);
}

static void reverse_entries(listing *all) {
    size_t i;
    for (i = 0; i < all->num / 2; i++) {
        const listed e = all->of[i];
        all->of[i] = all->of[all->num - 1 - i];
        all->of[all->num - 1 - i] = e;
    }
}

/* Those that the options choose. The caller frees, whatever comes of it. */
static hlsnap_result read_entries(const options *o, const char *dir, listing *all, hlsnap_error *err) {
    memset(all, 0, sizeof(*all));
    all->o = o;
    all->now = (int64_t)time(NULL);
    return in(dir, hlsnap_oci_list_info(dir, keep_entry, all, err));
}

static void free_entries(listing *all) {
    size_t i;
    for (i = 0; i < all->num; i++) free(all->of[i].tag);
    free(all->of);
}

/* Entries from number i on that are of one snapshot, in a listing whose entries are grouped. */
static size_t same_snapshot(const listing *all, size_t i) {
    size_t n = 1;
    while (i + n < all->num && strcmp(all->of[i].info.digest.text, all->of[i + n].info.digest.text) == 0) n++;
    return n;
}

/* Puts the entries of one snapshot side by side. Returns how many snapshots there are. */
static unsigned group_entries(listing *all) {
    unsigned groups = 0;
    size_t i, k, n;
    sort_entries(all, by_digest);
    for (i = 0; i < all->num; i += n, groups++)
        for (k = 0, n = same_snapshot(all, i); k < n; k++) all->of[i + k].first = all->of[i].number;
    sort_entries(all, by_first);
    return groups;
}

/* All tags of n entries from number i on: v1, v2; "-" for none. Good until the 8th show after it. */
static const char *tags_text(const listing *all, size_t i, size_t n) {
    char text[400] = "";
    size_t at = 0, end = i + n;
    for (; i < end && at < sizeof(text); i++)
        if (all->of[i].tag[0]) at += (size_t)snprintf(text + at, sizeof(text) - at, "%s%s", at ? ", " : "", all->of[i].tag);
    return at ? show("%s", text) : "-";
}

static void tags_json(const listing *all, size_t i, size_t n) {
    const char *comma = "";
    size_t end = i + n;
    json("'tags':[");
    for (; i < end; i++)
        if (all->of[i].tag[0]) json(comma), json("%s", all->of[i].tag), comma = ",";
    json("],'digest':%s", all->of[end - 1].info.digest.text);
}

/* As people and RFC 3339 have it, in UTC; "-" where it is not known. */
static const char *date(int64_t created) {
    const time_t t = (time_t)created;
    struct tm parts;
    char text[40];
    if (!created || !gmtime_r(&t, &parts) || !strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", &parts)) return "-";
    return show("%s", text);
}

/* ---- ls ---- */

static void sizes_json(const hlsnap_oci_info *i) {
    json("'bytes':%u,'own_bytes':", i->bytes);
    json(i->own_bytes ? "%u" : "null", i->own_bytes);
    json(i->created ? ",'created':%u" : ",'created':null", (uint64_t)i->created);
    json(",'pinned':%b,'referrers':%u", i->pinned, (uint64_t)i->referrers);
}

static void ls_json(const char *tag, hlsnap_result r, const hlsnap_oci_info *i) {
    json("{'tag':%s,'digest':%s,", tag, i->digest.text);
    if (r) json("'error':%s}", hlsnap_result_name(r));
    else sizes_json(i), json(",'pages':%u,'stored_pages':%u,'layers':%u}", i->pages, i->stored_pages, (uint64_t)i->layers);
}

/* One that keeps a snapshot without its tags, or is about it. user: what stands in front of the first. */
static bool holder_line(const hlsnap_oci_holder *h, void *user) {
    const char *tag = h->ref_name[0] ? show("%s", h->ref_name) : "no tag";
    if (h->kind != HLSNAP_OCI_HELD_TAG)
        printf("%s%.19s (%s)%s\n", (const char *)user, show("%s", h->digest), tag,
               h->kind == HLSNAP_OCI_HELD_ABOUT ? ", which is about it and goes with it" : "");
    return true;
}

static bool is_held(const hlsnap_oci_info *i) { return i->pinned || i->referrers; }

/* What a snapshot has around it: "pinned", it stays without a tag, too; signatures and the like, which go with it. */
static const char *held(const hlsnap_oci_info *i) {
    if (!is_held(i)) return "";
    if (!i->referrers) return "pinned";
    return show(i->pinned ? "pinned, %u about it" : "%u about it", i->referrers);
}

static void ls_row(table *t, const listed *e, bool full, bool dated) {
    const hlsnap_oci_info *i = &e->info;
    const char *tag = e->tag[0] ? show("%s", e->tag) : "-";
    const int digits = full ? 71 : 19;
    const char *created = dated ? date(i->created) : "";
    if (e->r) row(t, "%s\t%.*s\t?\t?\t?\t%s\t%s", tag, digits, i->digest.text, dated ? "?" : hlsnap_result_name(e->r),
                  hlsnap_result_name(e->r));
    else
        row(t, "%s\t%.*s\t%s\t%s\t%llu\t%u\t%s%s%s", tag, digits, i->digest.text, human(i->bytes), own(i->own_bytes),
            llu(i->pages), i->layers, created, dated && is_held(i) ? "  " : "", held(i));
}

static void ls_table(const options *o, const listing *all) {
    table t = {"llrrrl", NULL, 0};
    bool dated = o->full, around = false;
    size_t i;
    for (i = 0; i < all->num; i++) {
        dated = dated || all->of[i].info.created;
        around = around || is_held(&all->of[i].info);
    }
    if (dated || around) t.align = "llrrrll";
    row(&t, "TAG\tDIGEST\tSIZE\tOWN\tPAGES\tLAYERS\t%s", dated ? "CREATED" : "");
    for (i = 0; i < all->num; i++) ls_row(&t, &all->of[i], o->full, dated);
    table_print(&t);
}

static bool ls_line(const char *tag, hlsnap_result r, const hlsnap_oci_info *info, void *user) {
    listing *all = (listing *)user;
    if (!is_wanted(all->o, all->now, tag, info)) return true;
    if (all->o->limit && all->num == all->o->limit) return false;
    all->num++;
    ls_json(tag, r, info);
    putchar('\n');
    return !ferror(stdout);
}

/* Lines in the index's order need not wait for the last one. */
static hlsnap_result ls_stream(const options *o, hlsnap_error *err) {
    listing all = {o, NULL, 0, (int64_t)time(NULL)};
    return in(o->args[0], hlsnap_oci_list_info(o->args[0], ls_line, &all, err));
}

static void ls_print(const options *o, const listing *all) {
    size_t i;
    if (!o->json && !o->json_lines) {
        ls_table(o, all);
        return;
    }
    if (o->json) json("[");
    for (i = 0; i < all->num; i++) {
        if (o->json && i) json(",\n");
        ls_json(all->of[i].tag, all->of[i].r, &all->of[i].info);
        if (!o->json) putchar('\n');
    }
    if (o->json) json("]\n");
}

static hlsnap_result run_ls(options *o, hlsnap_error *err) {
    const struct sort_row *sort = o->sort ? find_sort(o->sort) : NULL;
    listing all;
    hlsnap_result r;
    if (o->sort && !sort) return fails(err, HLSNAP_ERR_ARG, "--sort %s: not name, size, own or created", o->sort);
    if (o->json && o->json_lines) return fails(err, HLSNAP_ERR_ARG, "--json and --json-lines");
    if (o->json_lines && !sort && !o->reverse) return ls_stream(o, err);
    r = read_entries(o, o->args[0], &all, err);
    if (!r && sort) sort_entries(&all, sort->order);
    if (!r && o->reverse) reverse_entries(&all);
    if (!r) {
        const listing some = {o, all.of, o->limit && o->limit < all.num ? (size_t)o->limit : all.num, 0};
        ls_print(o, &some);
    }
    free_entries(&all);
    return r;
}

/* ---- inspect ---- */

typedef bool (*contract_part)(const hlsnap_snapshot *s, size_t i, hlsnap_function *out);

static bool annotation_line(const char *key, const char *value, void *user) {
    (void)user;
    printf("  %s = %s\n", show("%s", key), show("%s", value));
    return true;
}

static bool annotation_json(const char *key, const char *value, void *user) {
    const char **comma = (const char **)user;
    json(*comma), json("{'key':%s,'value':%s}", key, value);
    *comma = ",\n";
    return true;
}

static void functions_json(const char *name, const hlsnap_snapshot *s, contract_part part) {
    hlsnap_function f;
    size_t i;
    json(",\n%s:[", name);
    for (i = 0; part(s, i, &f); i++) json(i ? ",\n" : ""), json("{'name':%s,'signature':%s}", f.name, f.signature);
    json("]");
}

static void maps_json(const hlsnap_snapshot *s) {
    hlsnap_map m;
    size_t i;
    json(",\n'maps':[");
    for (i = 0; hlsnap_snapshot_map(s, i, &m); i++) {
        const hlsnap_region g = region_of(&m);
        json(i ? ",\n" : ""),
            json("{'name':%s,'mode':%s,'source':%s,'gva':%x,'size':%u,'digest':%s,'stored_pages':%u}", m.name, mode_of(&m),
                 source_of(&m), m.gva, m.size, m.digest ? m.digest : "", stored_in(s, &g));
    }
    json("]");
}

static void memory_json(const view *v) {
    hlsnap_region g;
    hlsnap_extent e;
    size_t i;
    json(",\n'regions':[");
    for (i = 0; hlsnap_snapshot_region(v->s, i, &g); i++)
        json(i ? ",\n" : ""), json("{'kind':%s,'gva':%x,'pages':%u,'rights':%s,'stored':%b,'stored_pages':%u}", g.kind, g.gva,
                                   g.pages, rights(&g), g.stored, stored_in(v->s, &g));
    json("],\n'layers':[");
    for (i = 0; i < v->num_layers; i++)
        json(i ? ",\n" : ""), json("{'memory':%s,'chunks':%s,'pages':%u,'shown_pages':%u}", v->layers[i].memory.text,
                                   v->layers[i].chunks.text, v->layers[i].pages, v->shown[i]);
    json("],\n'extents':[");
    for (i = 0; hlsnap_snapshot_extent(v->s, i, &e); i++)
        json(i ? ",\n" : ""),
            json("{'gva':%x,'pages':%u,'layer':%u,'layer_page':%u}", e.gva, e.pages, (uint64_t)e.layer, e.layer_page);
    json("]");
}

static const char *const level_names[] = {"host", "v1", "v2", "v3", "v4"};
static const char *level_name(hlsnap_cpu level) { return level_names[level]; }

static hlsnap_result inspect_json(const view *v, const char *cpu_problem, hlsnap_error *err) {
    const hlsnap_snapshot_info *i = &v->info;
    const char *feature, *comma = "";
    hlsnap_result r;
    size_t n;
    json("{'digest':%s,\n'guest_name':%s,\n'build_id':%s,\n'cpu_vendor':%s,\n'hypervisor':%s,\n", v->oci.digest.text,
         i->guest_name, i->build_id, i->cpu_vendor, i->hypervisor);
    json("'entry':%x,\n'elf_entry':%x,\n'load_address':%x,\n'generation':%x,\n", i->entry, i->elf_entry, i->load_address,
         i->generation);
    sizes_json(&v->oci);
    json(",\n'pages':%u,\n'stored_pages':%u", i->pages, i->stored_pages);
    memory_json(v);
    maps_json(v->s);
    functions_json("exports", v->s, hlsnap_snapshot_export);
    functions_json("imports", v->s, hlsnap_snapshot_import);
    json(",\n'features':[");
    for (n = 0; (feature = hlsnap_snapshot_feature(v->s, n)); n++) json(n ? ",%s" : "%s", feature);
    json("],\n'cpu':%s,\n'baseline':%s", level_name(i->cpu), i->baseline ? level_name(i->baseline) : "");
    json(",\n'cpu_has_features':%b,\n'cpu_problem':%s,\n'annotations':[", !cpu_problem[0], cpu_problem);
    r = in(v->dir, hlsnap_oci_annotations(v->dir, v->ref, annotation_json, &comma, err));
    json("]}\n");
    return r;
}

static void identity_lines(const view *v) {
    const hlsnap_snapshot_info *i = &v->info;
    const uint64_t of_maps = stored_in_maps(v->s);
    printf("digest      %s\n", v->oci.digest.text);
    printf("guest       %s\n", i->guest_name[0] ? show("%s", i->guest_name) : "(from memory)");
    printf("build id    %s\n", i->build_id[0] ? show("%s", i->build_id) : "(none)");
    printf("made on     %s\n", show("%s, %s", i->cpu_vendor[0] ? i->cpu_vendor : "?", i->hypervisor[0] ? i->hypervisor : "?"));
    printf("entry       0x%llx (0x%llx in the ELF file, loaded at 0x%llx)\n", llu(i->entry), llu(i->elf_entry),
           llu(i->load_address));
    printf("generation  %llu\n", llu(i->generation));
    printf("memory      %llu pages (%s), %llu stored (%s)%s\n", llu(i->pages), human(i->pages * PAGE),
           llu(i->stored_pages - of_maps), human((i->stored_pages - of_maps) * PAGE),
           of_maps ? show("; of maps %llu (%s)", llu(of_maps), human(of_maps * PAGE)) : "");
    printf("on disk     %s, %s of it nobody else's\n", human(v->oci.bytes), own(v->oci.own_bytes));
    if (is_held(&v->oci)) {
        hlsnap_error unused;
        hlsnap_oci_holders(v->dir, v->oci.digest.text, holder_line, "held by     ", &unused);
    }
    putchar('\n');
}

static void maps_lines(const hlsnap_snapshot *s) {
    table t = {"llllrrl", NULL, 0};
    hlsnap_map m;
    size_t i;
    for (i = 0; hlsnap_snapshot_map(s, i, &m); i++) {
        const hlsnap_region g = region_of(&m);
        if (!i) row(&t, "MAP\tMODE\tSOURCE\tGVA\tSIZE\tSTORED\tDIGEST");
        row(&t, "%s\t%s\t%s\t0x%llx\t%llu\t%llu\t%s", m.name, mode_of(&m), source_of(&m), llu(m.gva), llu(m.size),
            llu(stored_in(s, &g)), m.digest ? m.digest : "-");
    }
    table_print(&t);
    if (i) putchar('\n');
}

static void memory_lines(const view *v) {
    table regions = {"llrrrl", NULL, 0}, layers = {"rlrr", NULL, 0};
    hlsnap_region g;
    hlsnap_extent e;
    uint64_t longest = 0;
    size_t i;
    row(&regions, "REGION\tGVA\tPAGES\tSTORED\tZERO\tRIGHTS");
    for (i = 0; hlsnap_snapshot_region(v->s, i, &g); i++) {
        const uint64_t stored = stored_in(v->s, &g);
        if (g.stored)
            row(&regions, "%s\t0x%llx\t%llu\t%llu\t%llu\t%s", g.kind, llu(g.gva), llu(g.pages), llu(stored),
                llu(g.pages - stored), rights(&g));
        else row(&regions, "%s\t0x%llx\t%llu\t-\t-\t%s", g.kind, llu(g.gva), llu(g.pages), rights(&g));
    }
    row(&layers, "LAYER\tBLOB\tPAGES\tSHOWN");
    for (i = 0; i < v->num_layers; i++)
        row(&layers, "%zu\t%s\t%llu\t%llu", i, v->layers[i].memory.text, llu(v->layers[i].pages), llu(v->shown[i]));
    table_print(&regions);
    putchar('\n');
    maps_lines(v->s);
    table_print(&layers);
    for (i = 0; hlsnap_snapshot_extent(v->s, i, &e); i++)
        if (e.pages > longest) longest = e.pages;
    printf("\nextents     %zu, the longest of %llu pages\n", i, llu(longest));
}

static void functions_lines(const char *title, const hlsnap_snapshot *s, contract_part part) {
    hlsnap_function f;
    size_t i;
    for (i = 0; part(s, i, &f); i++) printf("%-11s %s %s\n", i ? "" : title, f.name, f.signature);
    if (!i) printf("%-11s (none)\n", title);
}

static hlsnap_result inspect_lines(const view *v, const char *cpu_problem, hlsnap_error *err) {
    const char *feature;
    size_t i;
    identity_lines(v);
    memory_lines(v);
    functions_lines("exports", v->s, hlsnap_snapshot_export);
    functions_lines("imports", v->s, hlsnap_snapshot_import);
    printf("CPU level   %s, fits ", level_name(v->info.cpu));
    if (v->info.baseline) printf("every machine of level x86-64-%s\n", level_name(v->info.baseline));
    else printf("no level x86-64-v1 .. v4, only machines with all of:\n");
    printf("features    %s", cpu_problem[0] ? show("%s", cpu_problem) : "this CPU has them all");
    for (i = 0; (feature = hlsnap_snapshot_feature(v->s, i)); i++) printf("%s %s", i % 8 ? "" : "\n           ", feature);
    printf("\nannotations\n");
    return in(v->dir, hlsnap_oci_annotations(v->dir, v->ref, annotation_line, NULL, err));
}

static hlsnap_result run_inspect(options *o, hlsnap_error *err) {
    hlsnap_oci_desc desc = looking();
    hlsnap_snapshot *here = NULL;
    hlsnap_error cpu = HLSNAP_ZERO;
    view v;
    hlsnap_result r = view_open(&v, o->args[0], o->args[1], &desc, err);
    desc.any_cpu = false;
    if (!r && hlsnap_oci_load(v.dir, v.oci.digest.text, &desc, &here, NULL, &cpu) != HLSNAP_ERR_CPU) cpu.msg[0] = 0;
    hlsnap_snapshot_release(here);
    if (!r) r = (o->json ? inspect_json : inspect_lines)(&v, cpu.msg, err);
    hlsnap_snapshot_release(v.s);
    return r;
}

/* ---- what waits for others that change the layout, as long as --wait allows ---- */

static hlsnap_oci_desc patience(const options *o) {
    hlsnap_oci_desc desc = HLSNAP_ZERO;
    desc.wait_ns = o->wait_ms * 1000000;
    return desc;
}

static hlsnap_result change_tag(const options *o, const char *ref, const char *tag, hlsnap_error *err) {
    const hlsnap_oci_desc desc = patience(o);
    return in(o->args[0], hlsnap_oci_tag_with(o->args[0], ref, tag, &desc, err));
}

/* All of them or none. */
static hlsnap_result change_untag(const options *o, const char *const *tags, size_t num, hlsnap_error *err) {
    const hlsnap_oci_desc desc = patience(o);
    return in(o->args[0], hlsnap_oci_untag_listed(o->args[0], tags, (uint32_t)num, &desc, err));
}

static hlsnap_result change_gc(const options *o, const char *dir, uint64_t *freed, hlsnap_error *err) {
    const hlsnap_oci_desc desc = patience(o);
    return in(dir, hlsnap_oci_gc_with(dir, (o->grace_ms + 999) / 1000, &desc, freed, err));
}

/* ---- verify, fsck ---- */

/* What a check found. */
static void problem_json(hlsnap_result r, const hlsnap_error *err) {
    json("'ok':%b,'error':", !r);
    if (r) json("%s,'status':%u,'message':%s", hlsnap_result_name(r), (uint64_t)status_of(r, err), err->msg);
    else json("null,'status':0,'message':null");
}

static hlsnap_result verify(const char *dir, const char *ref, const hlsnap_oci_desc *desc, hlsnap_error *err) {
    hlsnap_snapshot *s = NULL;
    const hlsnap_result r = in(dir, hlsnap_oci_load(dir, ref, desc, &s, NULL, err));
    hlsnap_snapshot_release(s);
    return r;
}

/* Damage is worse than what is not for this machine or a bad disk, and that worse than what may pass. */
static int badness(hlsnap_result r, const hlsnap_error *err) {
    return !r ? 0 : hlsnap_result_transient(err) ? 1 : r >= HLSNAP_ERR_LAYOUT && r <= HLSNAP_ERR_DIGEST ? 3 : 2;
}

static void verified(const options *o, const listing *all, size_t i, size_t n, hlsnap_result r, const hlsnap_error *err) {
    bar_clear();
    if (o->json) json(i ? ",\n{" : "{"), tags_json(all, i, n), json(","), problem_json(r, err), json("}");
    else printf("%s  %s  %s\n", r ? hlsnap_result_name(r) : "ok", brief(&all->of[i].info.digest), tags_text(all, i, n));
    fflush(stdout);
    if (r) print_error(r, err);
}

/* Goes on after an error: what is right is worth knowing, too. The status is the worst one's. */
static hlsnap_result verify_each(options *o, const hlsnap_oci_desc *desc, listing *all, hlsnap_error *err) {
    int worst = 0;
    size_t i, n;
    bar.num = group_entries(all);
    for (i = 0; i < all->num; i += n) {
        hlsnap_result r = verify(o->args[0], all->of[i].info.digest.text, desc, err);
        if (r == HLSNAP_ERR_CANCELLED) return r;
        n = same_snapshot(all, i);
        verified(o, all, i, n, r, err);
        if (badness(r, err) > worst) o->status = status_of(r, err), worst = badness(r, err);
        bar_pass(bar.pass + 1, seconds());
    }
    return HLSNAP_OK;
}

static hlsnap_result verify_all(options *o, const hlsnap_oci_desc *desc, hlsnap_error *err) {
    listing all;
    hlsnap_result r = read_entries(o, o->args[0], &all, err);
    if (o->json) json("[");
    if (!r) r = verify_each(o, desc, &all, err);
    if (o->json) json("]\n");
    bar_end();
    free_entries(&all);
    return r;
}

static hlsnap_result run_verify(options *o, hlsnap_error *err) {
    hlsnap_oci_desc desc = bar_begin(o, NULL, 1);
    hlsnap_oci_digest whole;
    hlsnap_result r;
    desc.guard = HLSNAP_OCI_GUARD_NONE;
    desc.any_cpu = o->any_cpu;
    if (o->all) return verify_all(o, &desc, err);
    r = whole_ref(o->args[0], &o->args[1], &whole, err);
    if (!r) r = verify(o->args[0], o->args[1], &desc, err);
    bar_end();
    if (o->json) json("{'ref':%s,", o->args[1]), problem_json(r, err), json("}\n");
    else puts(r ? hlsnap_result_name(r) : "ok");
    return r;
}

typedef struct findings {
    const options *o;
    uint64_t num, repaired;
    int badness;        /* of the worst one that is still there, */
    hlsnap_error worst; /* which is this: the first of these */
} findings;

/* A line for each problem, as it is found. */
static bool found(const hlsnap_oci_problem *p, void *user) {
    findings *all = (findings *)user;
    hlsnap_error e = HLSNAP_ZERO;
    fails(&e, p->code, "%s", p->text);
    e.os_errno = p->os_errno;
    bar_clear();
    if (all->o->json && all->num) json(",\n");
    if (all->o->json || all->o->json_lines)
        json("{'error':%s,'status':%u,'tag':%s,'digest':%s,'repaired':%b,'message':%s}", hlsnap_result_name(p->code),
             (uint64_t)status_of(p->code, &e), p->ref, p->digest, p->repaired, p->text);
    else
        printf("%s  %s  %s  %s%s\n", hlsnap_result_name(p->code), p->digest[0] ? show("%.19s", p->digest) : "-",
               p->ref[0] ? show("%.128s", p->ref) : "-", p->repaired ? "repaired: " : "", show("%s", p->text));
    if (all->o->json_lines) putchar('\n');
    fflush(stdout);
    all->num++;
    all->repaired += p->repaired;
    if (!p->repaired && badness(p->code, &e) > all->badness) all->worst = e, all->badness = badness(p->code, &e);
    return !ferror(stdout);
}

static void findings_end(const findings *all, hlsnap_result r, const hlsnap_error *err) {
    const char *s = all->num == 1 ? "" : "s";
    if (all->o->json) json("],");
    if (all->o->json_lines) json("{");
    if (all->o->json || all->o->json_lines) {
        json("'found':%u,'repaired':%u,", all->num, all->repaired);
        problem_json(r, err);
        json("}\n");
    } else if (!r && all->num) printf("ok: %llu problem%s, repaired\n", llu(all->num), s);
    else if (!r) puts("ok");
    else if (!all->num) puts(hlsnap_result_name(r));
    else if (all->repaired) printf("%llu problem%s, %llu of them repaired\n", llu(all->num), s, llu(all->repaired));
    else printf("%llu problem%s\n", llu(all->num), s);
}

/* The status is the worst one's, as verify's. */
static hlsnap_result run_fsck(options *o, hlsnap_error *err) {
    findings all = {o, 0, 0, 0, HLSNAP_ZERO};
    hlsnap_oci_desc desc;
    hlsnap_result r;
    if (o->json && o->json_lines) return fails(err, HLSNAP_ERR_ARG, "--json and --json-lines");
    desc = bar_begin(o, NULL, 1);
    desc.on_problem = found;
    desc.user = &all;
    if (o->json) json("{'problems':[");
    r = in(o->args[0], hlsnap_oci_fsck_with(o->args[0], o->repair, &desc, err));
    bar_end();
    if (r && r != HLSNAP_ERR_CANCELLED && all.badness > badness(r, err)) {
        *err = all.worst;
        r = err->code;
    }
    findings_end(&all, r, err);
    return r;
}

/* ---- tag, rm, gc, flatten ---- */

typedef struct lookup {
    const char *tag;
    hlsnap_oci_digest digest; /* "" = none has the tag */
} lookup;

static bool look_up(const char *tag, const hlsnap_oci_digest *digest, uint64_t bytes, void *user) {
    lookup *l = (lookup *)user;
    (void)bytes;
    if (strcmp(tag, l->tag) == 0) l->digest = *digest;
    return !l->digest.text[0];
}

static void tagged_json(const char *tag, const hlsnap_oci_digest *digest) {
    json("{'tag':%s,'digest':%s}\n", tag, digest->text);
}

static hlsnap_result run_tag(options *o, hlsnap_error *err) {
    hlsnap_oci_digest whole;
    lookup l = {o->args[2], {""}};
    hlsnap_result r = whole_ref(o->args[0], &o->args[1], &whole, err);
    if (!r) r = change_tag(o, o->args[1], o->args[2], err);
    if (r || !o->json) return r;
    r = in(o->args[0], hlsnap_oci_list(o->args[0], look_up, &l, err));
    if (!r) tagged_json(l.tag, &l.digest);
    return r;
}

/* Tags; what a word of rm means. */
typedef struct tag_set {
    char **tags;
    size_t num, found; /* found: for the word at hand */
    const char *word;
    bool digest;
} tag_set;

static void add_tag(tag_set *set, const char *tag) {
    set->found++;
    if ((set->num & (set->num - 1)) == 0) set->tags = (char **)grow(set->tags, (2 * set->num + 1) * sizeof(char *));
    set->tags[set->num++] = copy_of(tag, strlen(tag));
}

static bool add_if_meant(const char *tag, const hlsnap_oci_digest *digest, uint64_t bytes, void *user) {
    tag_set *set = (tag_set *)user;
    (void)bytes;
    if (tag[0] && (set->digest ? strcmp(digest->text, set->word) : fnmatch(set->word, tag, 0)) == 0) add_tag(set, tag);
    return true;
}

/* A tag means itself, whatever it leads to; a glob, which no tag can be, all that match; a digest all tags of its snapshot. */
static hlsnap_result add_tags_of(const char *dir, const char *word, tag_set *set, hlsnap_error *err) {
    hlsnap_oci_digest whole;
    hlsnap_result r;
    set->word = word;
    set->digest = strncmp(word, "sha256:", 7) == 0;
    set->found = 0;
    if (!set->digest && !strpbrk(word, "*?[")) return add_tag(set, word), HLSNAP_OK;
    r = whole_ref(dir, &set->word, &whole, err);
    if (!r) r = in(dir, hlsnap_oci_list(dir, add_if_meant, set, err));
    if (r || set->found) return r;
    return in(dir, fails(err, HLSNAP_ERR_NOT_FOUND, set->digest ? "no tag leads to '%s'" : "no tag matches '%s'", word));
}

static int by_tag(const void *a, const void *b) {
    char *const *x = *(char *const *const *)a, *const *y = *(char *const *const *)b;
    const int order = strcmp(*x, *y);
    return order ? order : x < y ? -1 : x > y;
}

/* Leaves each tag once, the first. */
static void unique_tags(tag_set *set) {
    char ***sorted = (char ***)grow(NULL, set->num * sizeof(*sorted));
    const char *last = NULL;
    size_t i, num = 0;
    for (i = 0; i < set->num; i++) sorted[i] = &set->tags[i];
    qsort(sorted, set->num, sizeof(*sorted), by_tag);
    for (i = 0; i < set->num; i++)
        if (last && strcmp(*sorted[i], last) == 0) free(*sorted[i]), *sorted[i] = NULL;
        else last = *sorted[i];
    for (i = 0; i < set->num; i++)
        if (set->tags[i]) set->tags[num++] = set->tags[i];
    set->num = num;
    free(sorted);
}

/* What stays all the same, since something else leads to it: told for the few that one names, not for hundreds. */
static void tell_holders(const options *o, const char *digest) {
    hlsnap_error unused;
    if (digest[0]) hlsnap_oci_holders(o->args[0], digest, holder_line, "  held by ", &unused);
}

static hlsnap_result untag_all(const options *o, const tag_set *set, hlsnap_error *err) {
    enum { FEW = 16 };
    hlsnap_oci_digest of[FEW] = {{""}};
    hlsnap_result r;
    hlsnap_error unused;
    size_t i;
    for (i = 0; i < set->num && set->num <= FEW && !o->json; i++) {
        lookup l = {set->tags[i], {""}};
        hlsnap_oci_list(o->args[0], look_up, &l, &unused);
        of[i] = l.digest;
    }
    r = change_untag(o, (const char *const *)set->tags, set->num, err);
    for (i = 0; i < set->num && !r && !o->json; i++) {
        printf("untagged %s\n", show("%s", set->tags[i]));
        if (set->num <= FEW) tell_holders(o, of[i].text);
    }
    if (r || !o->json) return r;
    json("{'untagged':[");
    for (i = 0; i < set->num; i++) json(i ? ",%s" : "%s", set->tags[i]);
    json("]}\n");
    return r;
}

/* What each word means is found out first: where one means nothing, no tag goes, and else all do at once. */
static hlsnap_result run_rm(options *o, hlsnap_error *err) {
    tag_set set = {NULL, 0, 0, NULL, false};
    hlsnap_result r = HLSNAP_OK;
    int i;
    for (i = 1; i < o->num_args && !r; i++) r = add_tags_of(o->args[0], o->args[i], &set, err);
    unique_tags(&set);
    if (!r) r = untag_all(o, &set, err);
    if (!r && !o->json) printf("`hlsnap_tool gc` frees what no other snapshot needs\n");
    return r;
}

/* Blobs dated in the future, as clocks that differ make them: with a grace period they may count as new for as long. */
static void tell_future(const char *dir) {
    char *path = (char *)grow(NULL, strlen(dir) + sizeof("/blobs/sha256"));
    DIR *d = opendir(strcat(strcpy(path, dir), "/blobs/sha256"));
    const time_t now = time(NULL);
    struct dirent *entry;
    struct stat st;
    size_t num = 0;
    while (d && (entry = readdir(d)))
        if (fstatat(dirfd(d), entry->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(st.st_mode) && st.st_mtime > now + 1) num++;
    if (d) closedir(d);
    free(path);
    if (num)
        printf("%zu blobs are dated in the future; --grace 0 frees those that nothing leads to, whatever their time\n", num);
}

static hlsnap_result run_gc(options *o, hlsnap_error *err) {
    uint64_t freed = 0;
    const hlsnap_result r = change_gc(o, o->args[0], &freed, err);
    if (!r && o->json) json("{'freed_bytes':%u}\n", freed);
    else if (!r && o->grace_ms) tell_future(o->args[0]);
    if (!r && !o->json) printf("%llu bytes freed\n", llu(freed));
    return r;
}

static hlsnap_result run_flatten(options *o, hlsnap_error *err) {
    hlsnap_oci_desc desc = bar_begin(o, flatten_passes, HLSNAP_COUNT(flatten_passes));
    hlsnap_oci_digest whole, digest;
    hlsnap_result r = whole_ref(o->args[0], &o->args[1], &whole, err);
    desc.any_cpu = o->any_cpu;
    if (!r) r = in(o->args[0], hlsnap_oci_flatten(o->args[0], o->args[1], o->args[2], &desc, &digest, err));
    bar_end();
    if (!r && o->json) tagged_json(o->args[2], &digest);
    else if (!r) puts(digest.text);
    return r;
}

/* ---- du ---- */

typedef struct usage_of { uint64_t own, disk, blobs; } usage_of; /* of all; bytes, but for the number of blobs */

/* What lies in blobs/sha256, whoever's it is. */
static hlsnap_result count_blobs(const char *dir, usage_of *u, hlsnap_error *err) {
    const int flags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC, root = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    const int blobs = root < 0 ? -1 : openat(root, "blobs", flags), sha256 = blobs < 0 ? -1 : openat(blobs, "sha256", flags);
    DIR *d = sha256 < 0 ? NULL : fdopendir(sha256);
    hlsnap_result r = d ? HLSNAP_OK : fails(err, HLSNAP_ERR_OS, "blobs/sha256: %s", strerror(errno));
    const struct dirent *e;
    struct stat st;
    while (d && (e = readdir(d)))
        if (fstatat(sha256, e->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(st.st_mode))
            u->blobs++, u->disk += (uint64_t)st.st_size;
    if (d) closedir(d);
    else if (sha256 >= 0) close(sha256);
    if (blobs >= 0) close(blobs);
    if (root >= 0) close(root);
    return in(dir, r);
}

/* own_bytes 0: none, or not known; so is then what is shared. */
static void du_json(const listing *all, size_t i, size_t n) {
    const hlsnap_oci_info *of = &all->of[i].info;
    json(i ? ",\n{" : "{"), tags_json(all, i, n);
    if (all->of[i].r) json(",'error':%s}", hlsnap_result_name(all->of[i].r));
    else if (!of->own_bytes) json(",'bytes':%u,'shared_bytes':null,'own_bytes':null}", of->bytes);
    else json(",'bytes':%u,'shared_bytes':%u,'own_bytes':%u}", of->bytes, of->bytes - of->own_bytes, of->own_bytes);
}

static void du_row(table *t, const listing *all, size_t i, size_t n) {
    const hlsnap_oci_info *of = &all->of[i].info;
    if (all->of[i].r) row(t, "?\t?\t?\t%s\t%s: %s", brief(&of->digest), hlsnap_result_name(all->of[i].r), tags_text(all, i, n));
    else
        row(t, "%s\t%s\t%s\t%s\t%s", human(of->bytes), of->own_bytes ? human(of->bytes - of->own_bytes) : "?",
            own(of->own_bytes), brief(&of->digest), tags_text(all, i, n));
}

static void du_print(const options *o, const listing *all, const usage_of *u) {
    table t = {"rrrll", NULL, 0};
    size_t i, n;
    if (o->json) json("{'snapshots':[");
    else row(&t, "SIZE\tSHARED\tOWN\tDIGEST\tTAGS");
    for (i = 0; i < all->num; i += n) {
        n = same_snapshot(all, i);
        if (o->json) du_json(all, i, n);
        else du_row(&t, all, i, n);
    }
    if (o->json) json("],\n'own_bytes':%u,'disk_bytes':%u,'blobs':%u}\n", u->own, u->disk, u->blobs);
    table_print(&t);
    if (!o->json)
        printf("\n%s in %llu blobs; %s of it some snapshot's own\n", human(u->disk), llu(u->blobs), human(u->own));
}

static hlsnap_result run_du(options *o, hlsnap_error *err) {
    usage_of u = {0, 0, 0};
    listing all;
    size_t i;
    hlsnap_result r = read_entries(o, o->args[0], &all, err);
    if (!r) r = count_blobs(o->args[0], &u, err);
    group_entries(&all);
    for (i = 0; i < all.num; i += same_snapshot(&all, i)) u.own += all.of[i].info.own_bytes;
    if (!r) du_print(o, &all, &u);
    free_entries(&all);
    return r;
}

/* ---- unresolved ---- */

static hlsnap_result run_unresolved(options *o, hlsnap_error *err) {
    hlsnap_guest_desc guest = HLSNAP_ZERO;
    const char *comma = "";
    char *text, *line, *end;
    size_t size = 0;
    hlsnap_result r;
    guest.path = o->args[0];
    r = hlsnap_guest_unresolved(&guest, NULL, 0, &size, err);
    if (r) return r;
    text = (char *)grow(NULL, size + 1);
    r = hlsnap_guest_unresolved(&guest, text, size + 1, NULL, err);
    if (!r && o->json) json("[");
    for (line = text; !r && (end = strchr(line, '\n')) != NULL; line = end + 1) {
        *end = 0;
        if (o->json) json(comma), json("%s", line), comma = ",";
        else puts(show("%s", line));
    }
    if (!r && o->json) json("]\n");
    free(text);
    return r;
}

/* ---- prune ---- */

/* Oldest first. What does not say when it was created counts as older than all that does; among its like the index's order
   counts. */
static int by_age(const void *a, const void *b) {
    const int order = compare_u64((uint64_t)((const listed *)a)->info.created, (uint64_t)((const listed *)b)->info.created);
    return order ? order : by_number(a, b);
}

/* Marks the tags that go. One of what cannot be read stays: it may be the one that somebody needs. */
static void prune_choose(const options *o, listing *all) {
    const uint64_t keep = o->keep_last == NO_TIME ? 0 : o->keep_last;
    uint64_t seen = 0;
    size_t i;
    sort_entries(all, by_age);
    for (i = all->num; i-- > 0;) {
        listed *e = &all->of[i];
        const int64_t age = all->now - e->info.created;
        if (!e->tag[0] || e->r || (o->match && fnmatch(o->match, e->tag, 0) != 0) || seen++ < keep) continue;
        e->goes = o->older_ms == NO_TIME || (e->info.created && age > (int64_t)(o->older_ms / 1000));
    }
}

/* Bytes of snapshots that lose their last tag, and that no other one needs: what they share with each other comes to it. */
static uint64_t prune_frees(listing *all) {
    uint64_t bytes = 0;
    size_t i, k, n;
    group_entries(all);
    for (i = 0; i < all->num; i += n) {
        bool tagged = false, stays = false;
        n = same_snapshot(all, i);
        for (k = i; k < i + n; k++) tagged = tagged || all->of[k].goes, stays = stays || (all->of[k].tag[0] && !all->of[k].goes);
        if (tagged && !stays) bytes += all->of[i].info.own_bytes;
    }
    return bytes;
}

static hlsnap_result prune_untag(const options *o, const listing *all, hlsnap_error *err) {
    const char *comma = "", **tags = (const char **)grow(NULL, (all->num + 1) * sizeof(*tags));
    hlsnap_result r = HLSNAP_OK;
    size_t i, num = 0;
    for (i = 0; i < all->num; i++)
        if (all->of[i].goes) tags[num++] = all->of[i].tag;
    if (num && !o->dry_run) r = change_untag(o, tags, num, err);
    free(tags);
    for (i = 0; i < all->num && !r && !o->json; i++) {
        const listed *e = &all->of[i];
        if (e->goes)
            printf("%s %s  %s\n", o->dry_run ? "would untag" : "untagged", show("%s", e->tag), date(e->info.created));
    }
    if (r || !o->json) return r;
    json("{'dry_run':%b,'untagged':[", o->dry_run);
    for (i = 0; i < all->num; i++)
        if (all->of[i].goes) {
            json(comma), json("{'tag':%s,'digest':%s}", all->of[i].tag, all->of[i].info.digest.text);
            comma = ",\n";
        }
    json("]");
    return r;
}

static hlsnap_result run_prune(options *o, hlsnap_error *err) {
    const options none = {.older_ms = NO_TIME, .newer_ms = NO_TIME};
    const bool collect = o->gc && !o->dry_run;
    uint64_t frees = 0, freed = 0;
    listing all;
    hlsnap_result r;
    if (o->keep_last == NO_TIME && o->older_ms == NO_TIME)
        return fails(err, HLSNAP_ERR_ARG, "--keep-last or --older-than must say which");
    r = read_entries(&none, o->args[0], &all, err);
    if (!r) prune_choose(o, &all), r = prune_untag(o, &all, err);
    if (!r) frees = prune_frees(&all);
    if (!r && collect) r = change_gc(o, o->args[0], &freed, err);
    if (!r && o->json) json(collect ? ",\n'freed_bytes':%u}\n" : ",\n'frees_bytes':%u}\n", collect ? freed : frees);
    else if (!r && collect) printf("%llu bytes freed\n", llu(freed));
    else if (!r) printf("gc %s at least %llu bytes\n", o->dry_run ? "would free" : "frees", llu(frees));
    free_entries(&all);
    return r;
}

/* ---- a place for what lives as long as a command, which also ends by SIGTERM and SIGHUP then, and ^C ---- */

static struct {
    char *path; /* NULL: none */
    bool beside; /* what it was made for, and not in TMPDIR */
    bool caught; /* the signals */
    struct sigaction term, hangup;
} scratch;

static void catch_signal(int number, struct sigaction *before) {
    struct sigaction action;
    memset(&action, 0, sizeof(action));
    action.sa_handler = interrupt;
    sigaction(number, NULL, before);
    if (before->sa_handler != SIG_IGN) sigaction(number, &action, NULL);
}

/* Name and what stands in front of it; "." where there is nothing. */
static char *directory_of(const char *path) {
    size_t n = strlen(path);
    while (n > 1 && path[n - 1] == '/') n--;
    while (n && path[n - 1] != '/') n--;
    return n ? copy_of(path, n) : copy_of(".", 1);
}

static char *join(const char *dir, const char *name) {
    const size_t n = strlen(dir);
    char *to = (char *)grow(NULL, n + strlen(name) + 2);
    sprintf(to, "%s%s%s", dir, n && dir[n - 1] == '/' ? "" : "/", name);
    return to;
}

static bool scratch_in(const char *dir) {
    scratch.path = join(dir, ".hlsnap-XXXXXX");
    if (mkdtemp(scratch.path)) return true;
    free(scratch.path);
    scratch.path = NULL;
    return false;
}

/* A directory beside a file or directory, so that bytes need not move (NULL: anywhere), or else in TMPDIR. */
static hlsnap_result scratch_make(const char *beside, hlsnap_error *err) {
    const char *tmp = getenv("TMPDIR");
    char *dir = beside ? directory_of(beside) : NULL;
    scratch.caught = true;
    catch_signal(SIGTERM, &scratch.term);
    catch_signal(SIGHUP, &scratch.hangup);
    scratch.beside = dir && scratch_in(dir);
    free(dir);
    if (scratch.beside || scratch_in(tmp && tmp[0] ? tmp : "/tmp")) return HLSNAP_OK;
    return fails(err, HLSNAP_ERR_OS, "a temporary directory: %s", strerror(errno));
}

/* Whatever an archive made there: no link is followed, and nothing is so deep that this does not end. */
static void remove_tree(int at, const char *name, int depth) {
    struct stat st;
    const bool is_dir = fstatat(at, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISDIR(st.st_mode);
    const int fd = is_dir && depth && fchmodat(at, name, 0700, 0) == 0
                       ? openat(at, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC) : -1;
    DIR *d = fd < 0 ? NULL : fdopendir(fd);
    const struct dirent *e;
    while (d && (e = readdir(d)))
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0) remove_tree(fd, e->d_name, depth - 1);
    if (d) closedir(d);
    unlinkat(at, name, is_dir ? AT_REMOVEDIR : 0);
}

static void scratch_end(void) {
    if (scratch.path) remove_tree(AT_FDCWD, scratch.path, 12);
    free(scratch.path);
    scratch.path = NULL;
    if (!scratch.caught) return;
    sigaction(SIGTERM, &scratch.term, NULL);
    sigaction(SIGHUP, &scratch.hangup, NULL);
}

/* ---- tar, the program ---- */

/* The environment, but for what would change what tar does. */
static char **tar_environment(void) {
    extern char **environ;
    static char locale[] = "LC_ALL=C";
    size_t n = 0, i;
    char **to;
    while (environ[n]) n++;
    to = (char **)grow(NULL, (n + 2) * sizeof(char *));
    for (i = n = 0; environ[i]; i++)
        if (strncmp(environ[i], "TAR_OPTIONS=", 12) != 0 && strncmp(environ[i], "POSIXLY_CORRECT", 15) != 0 &&
            strncmp(environ[i], "LC_ALL=", 7) != 0)
            to[n++] = environ[i];
    to[n++] = locale;
    to[n] = NULL;
    return to;
}

/* Starts it with these as its standard input and output, which are closed then but for our own. */
static hlsnap_result tar_start(const char *const *args, int in_fd, int out_fd, pid_t *pid, hlsnap_error *err) {
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    char **environment = tar_environment(), **argv;
    sigset_t defaults;
    size_t n = 0;
    int e;
    while (args[n]) n++;
    argv = (char **)grow(NULL, (n + 1) * sizeof(char *));
    for (argv[n] = NULL; n-- > 0;) argv[n] = copy_of(args[n], strlen(args[n]));
    sigemptyset(&defaults);
    sigaddset(&defaults, SIGPIPE);
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, in_fd, STDIN_FILENO);
    posix_spawn_file_actions_adddup2(&actions, out_fd, STDOUT_FILENO);
    posix_spawnattr_init(&attributes);
    posix_spawnattr_setsigdefault(&attributes, &defaults);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGDEF);
    e = posix_spawnp(pid, "tar", &actions, &attributes, argv, environment);
    posix_spawnattr_destroy(&attributes);
    posix_spawn_file_actions_destroy(&actions);
    for (n = 0; argv[n]; n++) free(argv[n]);
    free(argv);
    free(environment);
    errno = e;
    if (!e) return HLSNAP_OK;
    return fails(err, e == ENOENT ? HLSNAP_ERR_UNSUPPORTED : HLSNAP_ERR_OS, "the program tar: %s", strerror(e));
}

/* Waits for its end, or brings it about when somebody interrupts us; code is what its failure means. */
static hlsnap_result tar_end(pid_t pid, hlsnap_result code, hlsnap_error *err) {
    const struct timespec moment = {0, 5000000};
    int status = 0;
    pid_t done;
    bool told = false;
    while ((done = waitpid(pid, &status, WNOHANG)) == 0 || (done < 0 && errno == EINTR)) {
        if (interrupted && !told) kill(pid, SIGTERM), told = true;
        nanosleep(&moment, NULL);
    }
    if (interrupted) return fails(err, HLSNAP_ERR_CANCELLED, "interrupted");
    if (done == pid && WIFEXITED(status) && WEXITSTATUS(status) == 0) return HLSNAP_OK;
    return fails(err, code, "the program tar failed, %s %d", WIFSIGNALED(status) ? "by signal" : "with status",
                 WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
}

/* ---- copy, export, import ---- */

static void copied(const options *o, const char *tag, const hlsnap_oci_digest *digest) {
    if (!o->json) puts(digest->text);
    else if (tag) tagged_json(tag, digest);
    else json("{'tag':null,'digest':%s}\n", digest->text);
}

static const char *tag_or_null(const char *ref) { return strchr(ref, ':') ? NULL : ref; }

static hlsnap_result run_copy(options *o, hlsnap_error *err) {
    hlsnap_oci_desc desc = bar_begin(o, NULL, 1);
    const char *tag = o->num_args > 3 ? o->args[3] : NULL;
    hlsnap_oci_digest whole, digest;
    hlsnap_result r = whole_ref(o->args[0], &o->args[1], &whole, err);
    desc.max_bytes = o->max_bytes;
    if (!tag) tag = tag_or_null(o->args[1]);
    if (!r) r = hlsnap_oci_copy(o->args[0], o->args[1], o->args[2], tag, &desc, &digest, err);
    bar_end();
    if (!r) copied(o, tag, &digest);
    return r;
}

/* The archive of a layout in the temporary directory; the same bytes for the same snapshot and tag. */
static hlsnap_result archive(const char *from, int out_fd, hlsnap_error *err) {
    const char *const args[] = {"tar", "--create", "--file=-", "--format=gnu", "--sort=name", "--owner=0", "--group=0",
                                "--numeric-owner", "--mtime=@0", "--mode=u=rwX,go=", "--directory", from, "--", "blobs",
                                "index.json", "oci-layout", NULL};
    pid_t pid;
    hlsnap_result r = tar_start(args, STDIN_FILENO, out_fd, &pid, err);
    return r ? r : tar_end(pid, HLSNAP_ERR_OS, err);
}

/* Whether a file can be made anew, and take the place of this one in one step. */
static bool is_replaceable(const char *path) {
    struct stat st;
    return scratch.beside && (lstat(path, &st) != 0 || S_ISREG(st.st_mode));
}

static hlsnap_result archive_to(const char *from, const char *path, hlsnap_error *err) {
    char *made = is_replaceable(path) ? join(scratch.path, "archive.tar") : NULL;
    const int fd = open(made ? made : path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    hlsnap_result r = fd < 0 ? fails(err, HLSNAP_ERR_OS, "%s: %s", path, strerror(errno)) : archive(from, fd, err);
    if (!r && made && fsync(fd) != 0) r = fails(err, HLSNAP_ERR_OS, "%s: %s", path, strerror(errno));
    if (fd >= 0 && close(fd) != 0 && !r) r = fails(err, HLSNAP_ERR_OS, "%s: %s", path, strerror(errno));
    if (!r && made && rename(made, path) != 0) r = fails(err, HLSNAP_ERR_OS, "%s: %s", path, strerror(errno));
    free(made);
    return r;
}

static hlsnap_result run_export(options *o, hlsnap_error *err) {
    const char *path = strcmp(o->args[2], "-") == 0 ? NULL : o->args[2];
    hlsnap_oci_desc desc = bar_begin(o, NULL, 1);
    hlsnap_oci_digest whole, digest;
    char *from = NULL;
    hlsnap_result r = HLSNAP_OK;
    if (!path && (o->json || isatty(STDOUT_FILENO))) r = fails(err, HLSNAP_ERR_ARG, "the archive is what standard output gets");
    if (!r) r = whole_ref(o->args[0], &o->args[1], &whole, err);
    if (!r) r = scratch_make(path, err);
    if (!r) from = join(scratch.path, "layout");
    desc.max_bytes = o->max_bytes;
    if (!r) r = hlsnap_oci_copy(o->args[0], o->args[1], from, tag_or_null(o->args[1]), &desc, &digest, err);
    bar_clear();
    if (!r) r = path ? archive_to(from, path, err) : archive(from, STDOUT_FILENO, err);
    free(from);
    scratch_end();
    bar_end();
    if (!r && path) copied(o, tag_or_null(o->args[1]), &digest);
    return r;
}

/* All of an archive, but no more than so many bytes, into the pipe that tar reads. What tar does not want any more is no error. */
static hlsnap_result feed(int from, int to, uint64_t most, hlsnap_error *err) {
    struct pollfd ready = {from, POLLIN, 0};
    static char buffer[65536];
    uint64_t all = 0;
    ssize_t n, done, k;
    for (;;) {
        n = poll(&ready, 1, 100) > 0 ? read(from, buffer, sizeof(buffer)) : -1;
        if (interrupted) return fails(err, HLSNAP_ERR_CANCELLED, "interrupted");
        if (n == 0) return HLSNAP_OK;
        if (n < 0 && ready.revents && errno != EINTR && errno != EAGAIN) return fails(err, HLSNAP_ERR_OS, "%s", strerror(errno));
        if (n < 0) continue;
        all += (uint64_t)n;
        if (all > most) return fails(err, HLSNAP_ERR_LIMIT, "more than %llu bytes (--max-bytes)", llu(most));
        for (done = 0; done < n; done += k > 0 ? k : 0) {
            k = write(to, buffer + done, (size_t)(n - done));
            if (k < 0 && errno != EINTR) return errno == EPIPE ? HLSNAP_OK : fails(err, HLSNAP_ERR_OS, "%s", strerror(errno));
            if (interrupted) return fails(err, HLSNAP_ERR_CANCELLED, "interrupted");
        }
    }
}

/* Unpacks an archive, of which nothing is believed: owners and rights are ours, paths stay below, and are not deep; links and what
   is no file may come of it, and are what the library refuses to read. Not of a compressed one: that may be far more than it is. */
static hlsnap_result unpack(const options *o, int from, const char *to, hlsnap_error *err) {
    const char *const args[] = {"tar", "--extract", "--file=-", "--no-same-owner", "--no-same-permissions", "--no-xattrs",
                                "--no-acls", "--no-selinux", "--anchored", "--exclude=*/*/*/*/*", "--directory", to, NULL};
    int pipes[2];
    pid_t pid;
    hlsnap_result r, fed;
    if (mkdir(to, 0700) != 0 || pipe(pipes) != 0) return fails(err, HLSNAP_ERR_OS, "%s: %s", to, strerror(errno));
    fcntl(pipes[1], F_SETFD, FD_CLOEXEC);
    r = tar_start(args, pipes[0], STDERR_FILENO, &pid, err);
    close(pipes[0]);
    fed = r ? r : feed(from, pipes[1], o->max_bytes ? o->max_bytes : IMPORT_BYTES, err);
    if (!r && fed) kill(pid, SIGTERM);
    close(pipes[1]);
    if (!r) {
        hlsnap_error other = HLSNAP_ZERO;
        r = tar_end(pid, HLSNAP_ERR_LAYOUT, fed ? &other : err);
    }
    return fed ? fed : r;
}

/* Whether it is one that the library would give. */
static bool is_plain_tag(const char *tag) {
    const size_t n = strspn(tag, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-");
    return n && n <= 128 && !tag[n] && tag[0] != '.' && tag[0] != '-';
}

typedef struct only { /* the one snapshot of an archive */
    hlsnap_oci_digest digest;
    char tag[130]; /* one that it has, and may have here; "" = none */
    bool several;
} only;

static bool find_only(const char *tag, const hlsnap_oci_digest *digest, uint64_t bytes, void *user) {
    only *found = (only *)user;
    (void)bytes;
    if (found->digest.text[0] && strcmp(found->digest.text, digest->text) != 0) found->several = true;
    found->digest = *digest;
    if (!found->tag[0] && is_plain_tag(tag)) strcpy(found->tag, tag);
    return !found->several;
}

/* What is meant of an archive: --ref, or all that there is. */
static hlsnap_result only_ref(const options *o, const char *dir, const char **ref, hlsnap_oci_digest *whole, hlsnap_error *err) {
    static only found;
    hlsnap_result r;
    *ref = o->ref;
    if (o->ref) return whole_ref(dir, ref, whole, err);
    r = hlsnap_oci_list(dir, find_only, &found, err);
    if (!r && found.several) return fails(err, HLSNAP_ERR_AMBIGUOUS, "several snapshots: --ref says which");
    if (!r && !found.digest.text[0]) return fails(err, HLSNAP_ERR_NOT_FOUND, "no snapshot");
    *ref = found.tag[0] ? found.tag : found.digest.text;
    return r;
}

static hlsnap_result import_from(const options *o, int fd, const hlsnap_oci_desc *desc, hlsnap_error *err) {
    char *from = join(scratch.path, "layout");
    const char *ref = NULL, *tag = o->num_args > 2 ? o->args[2] : NULL;
    hlsnap_oci_digest whole, digest;
    hlsnap_result r = unpack(o, fd, from, err);
    if (!r) r = only_ref(o, from, &ref, &whole, err);
    if (r) layout = strcmp(o->args[0], "-") == 0 ? "standard input" : o->args[0];
    if (!r && !tag) tag = tag_or_null(ref);
    if (!r) r = hlsnap_oci_copy(from, ref, o->args[1], tag, desc, &digest, err);
    bar_clear();
    if (!r) copied(o, tag, &digest);
    free(from);
    return r;
}

static hlsnap_result run_import(options *o, hlsnap_error *err) {
    const bool piped = strcmp(o->args[0], "-") == 0;
    hlsnap_oci_desc desc = bar_begin(o, NULL, 1);
    const int fd = piped ? STDIN_FILENO : open(o->args[0], O_RDONLY | O_CLOEXEC);
    hlsnap_result r = fd < 0 ? fails(err, HLSNAP_ERR_OS, "%s: %s", o->args[0], strerror(errno)) : scratch_make(o->args[1], err);
    desc.max_bytes = o->max_bytes ? o->max_bytes : IMPORT_BYTES;
    if (!r) r = import_from(o, fd, &desc, err);
    if (fd > STDIN_FILENO) close(fd);
    scratch_end();
    bar_end();
    return r;
}

/* ---- maps: files that a guest finds by name ---- */

/* SHA-256 as FIPS 180-4 has it, for the library's is its own. */
static uint32_t turned(uint32_t v, unsigned n) { return v >> n | v << (32 - n); }

static void sha256_block(uint32_t sum[8], const uint8_t *p) {
    static const uint32_t k[64] = {
        0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5, 0xd807aa98, 0x12835b01,
        0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174, 0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc,
        0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da, 0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147,
        0x06ca6351, 0x14292967, 0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
        0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070, 0x19a4c116, 0x1e376c08,
        0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3, 0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208,
        0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};
    uint32_t a = sum[0], b = sum[1], c = sum[2], d = sum[3], e = sum[4], f = sum[5], g = sum[6], h = sum[7], w[64], x, y;
    unsigned i;
    for (i = 0; i < 16; i++, p += 4) w[i] = (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
    for (; i < 64; i++) {
        x = w[i - 15], y = w[i - 2];
        w[i] = w[i - 16] + (turned(x, 7) ^ turned(x, 18) ^ x >> 3) + w[i - 7] + (turned(y, 17) ^ turned(y, 19) ^ y >> 10);
    }
    for (i = 0; i < 64; i++) {
        x = h + (turned(e, 6) ^ turned(e, 11) ^ turned(e, 25)) + ((e & f) ^ (~e & g)) + k[i] + w[i];
        y = (turned(a, 2) ^ turned(a, 13) ^ turned(a, 22)) + ((a & b) ^ (a & c) ^ (b & c));
        h = g, g = f, f = e, e = d + x, d = c, c = b, b = a, a = x + y;
    }
    sum[0] += a, sum[1] += b, sum[2] += c, sum[3] += d, sum[4] += e, sum[5] += f, sum[6] += g, sum[7] += h;
}

/* The digest of all that a file has. */
static hlsnap_result hash_file(const char *path, char to[72], hlsnap_error *err) {
    static uint8_t buffer[65536 + 128]; /* what is read, and room for the end */
    uint32_t sum[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
    FILE *f = fopen(path, "rb");
    uint64_t bits = 0;
    size_t n = 65536, at, i;
    hlsnap_result r = f ? HLSNAP_OK : HLSNAP_ERR_OS;
    while (!r && n == 65536) {
        n = fread(buffer, 1, 65536, f);
        bits += 8 * (uint64_t)n;
        at = n;
        if (n < 65536) { /* a bit, zeros, the length */
            memset(buffer + n, 0, 128);
            buffer[n] = 0x80;
            at = (n + 9 + 63) / 64 * 64;
            for (i = 0; i < 8; i++) buffer[at - 1 - i] = (uint8_t)(bits >> 8 * i);
        }
        for (i = 0; i < at; i += 64) sha256_block(sum, buffer + i);
        if (ferror(f)) r = HLSNAP_ERR_OS;
    }
    if (r) fails(err, r, "%s: %s", path, strerror(errno));
    if (f) fclose(f);
    strcpy(to, "sha256:");
    for (i = 0; i < 8; i++) sprintf(to + 7 + 8 * i, "%08x", sum[i]);
    return r;
}

static bool find_map(const hlsnap_snapshot *s, const char *name, hlsnap_map *out) {
    size_t i;
    for (i = 0; hlsnap_snapshot_map(s, i, out); i++)
        if (strcmp(out->name, name) == 0) return true;
    return false;
}

/* For a map that the snapshot demands: its mode, and the digest that the file has, where one is asked for. The size is the file's:
   what is not as demanded, the library refuses. */
static hlsnap_result as_demanded(const hlsnap_map *want, hlsnap_map *map, char digest[72], hlsnap_error *err) {
    struct stat st;
    map->mode = want->mode;
    if (want->capture)
        return fails(err, HLSNAP_ERR_CONTRACT, "--map %s: the snapshot has this map in its layers, and takes no file", map->name);
    if (!want->digest || stat(map->path, &st) != 0 || !S_ISREG(st.st_mode) || (uint64_t)st.st_size != want->size) return HLSNAP_OK;
    map->digest = digest;
    return hash_file(map->path, digest, err);
}

/* --map: those that the snapshot demands, and READ ones (of no snapshot, NULL, all are). */
static hlsnap_result give_maps(const options *o, const hlsnap_snapshot *s, hlsnap_sandbox_desc *desc, hlsnap_error *err) {
    static hlsnap_map maps[HLSNAP_MAX_MAPS + 1]; /* one more than the library takes, for it to say so */
    static struct { char name[HLSNAP_MAX_NAME + 2], digest[72]; } texts[HLSNAP_COUNT(maps)]; /* names likewise */
    hlsnap_result r = HLSNAP_OK;
    hlsnap_map want;
    size_t i;
    for (i = 0; i < o->maps.num && i < HLSNAP_COUNT(maps) && !r; i++) {
        const char *word = o->maps.at[i];
        snprintf(texts[i].name, sizeof(texts[i].name), "%.*s", (int)strcspn(word, "="), word);
        maps[i].name = texts[i].name;
        maps[i].path = strchr(word, '=') + 1;
        if (find_map(s, maps[i].name, &want)) r = as_demanded(&want, &maps[i], texts[i].digest, err);
    }
    desc->maps = maps;
    desc->num_maps = i;
    return r;
}

/* ---- run ---- */

static const char *const type_names[] = {"void", "bool", "i32", "u32", "i64", "u64", "f32", "f64", "str", "bytes"};

/* What the guest says may look like anything: each line of it is marked, so that none passes for one of the tool's. */
static void log_line(int level, const char *text, size_t size, void *user) {
    static const char *const names[] = {"", "error: ", "warning: ", "info: ", "debug: "};
    const char *end = text + size;
    (void)user;
    if (size && end[-1] == '\n') end--;
    do {
        fprintf(stderr, "guest: %s", level >= 0 && level < (int)HLSNAP_COUNT(names) ? names[level] : "");
        while (text < end && *text != '\n') fputs(next(&text, LINES), stderr);
        fputc('\n', stderr);
    } while (text++ < end);
}

/* Stands in for every function that the snapshot needs of its host. */
static hlsnap_result no_host(hlsnap_call *call, void *user) {
    const hlsnap_function *f = (const hlsnap_function *)user;
    fprintf(stderr, "hlsnap_tool: run: the guest called its host's %s %s, which this tool has not\n", f->name, f->signature);
    return hlsnap_call_fail(call, 1, "hlsnap_tool has no host functions");
}

/* The file's bytes; NULL with errno. */
static uint8_t *read_file(const char *path, size_t *size, uint64_t most) {
    FILE *f = fopen(path, "rb");
    uint8_t *p = NULL;
    size_t n = 1;
    int e = f ? 0 : errno;
    size_t room = 0;
    for (*size = 0; !e && n; *size += n) {
        if (room - *size < 65536) p = (uint8_t *)grow(p, room = 2 * room + 65536);
        n = fread(p + *size, 1, 65536, f);
        if (ferror(f)) e = errno;
        if (*size > most) e = EFBIG;
    }
    if (f) fclose(f);
    if (e) free(p);
    errno = e;
    return e ? NULL : p;
}

static bool parse_hex(const char *s, uint8_t *to) {
    static const char digits[] = "00112233445566778899aAbBcCdDeEfF";
    const char *high, *low;
    for (; *s; s += 2) {
        if (!s[1] || !(high = strchr(digits, s[0])) || !(low = strchr(digits, s[1]))) return false;
        *to++ = (uint8_t)((high - digits) / 2 << 4 | (low - digits) / 2);
    }
    return true;
}

/* A whole number within a type's range: decimal, or 0x and hex digits. */
static bool parse_number(const char *s, bool is_signed, unsigned bits, uint64_t *out) {
    const bool minus = is_signed && *s == '-';
    const char *digits = minus ? s + 1 : s;
    const bool hex = digits[0] == '0' && (digits[1] == 'x' || digits[1] == 'X');
    const uint64_t most = is_signed ? (1ull << (bits - 1)) - !minus : UINT64_MAX >> (64 - bits);
    char *end;
    if (hex) digits += 2;
    if (!*digits || strspn(digits, hex ? "0123456789abcdefABCDEF" : "0123456789") != strlen(digits)) return false;
    errno = 0;
    *out = strtoull(digits, &end, hex ? 16 : 10);
    if (errno || *end || *out > most) return false;
    if (minus) *out = 0 - *out;
    return true;
}

static bool parse_float(const char *s, hlsnap_type type, hlsnap_value *out) {
    char *end;
    errno = 0;
    out->type = type;
    if (type == HLSNAP_F32) out->as.f32 = strtof(s, &end);
    else out->as.f64 = strtod(s, &end);
    return *s && !*end && !strchr(" \t\n\v\f\r", *s) &&
           (errno != ERANGE ||
            (type == HLSNAP_F32 ? out->as.f32 < 1 && out->as.f32 > -1 : out->as.f64 < 1 && out->as.f64 > -1));
}

/* Not a word on bytes from a file: those are read before. */
static bool parse_value(const char *s, hlsnap_type type, hlsnap_value *out) {
    uint64_t n = 0;
    uint8_t *bytes;
    bool ok;
    if (type == HLSNAP_F32 || type == HLSNAP_F64) return parse_float(s, type, out);
    if (type == HLSNAP_STR) return *out = hlsnap_str(s), true;
    if (type == HLSNAP_BYTES) {
        bytes = (uint8_t *)grow(NULL, strlen(s) / 2 + 1);
        *out = hlsnap_bytes(bytes, strlen(s) / 2);
        return parse_hex(s, bytes);
    }
    if (type == HLSNAP_BOOL) return *out = hlsnap_bool(strcmp(s, "true") == 0), out->as.b || strcmp(s, "false") == 0;
    ok = parse_number(s, type == HLSNAP_I32 || type == HLSNAP_I64, type == HLSNAP_I32 || type == HLSNAP_U32 ? 32 : 64, &n);
    *out = hlsnap_u64(n);
    out->type = type;
    if (type == HLSNAP_I32) *out = hlsnap_i32((int32_t)(int64_t)n);
    else if (type == HLSNAP_U32) *out = hlsnap_u32((uint32_t)n);
    else if (type == HLSNAP_I64) *out = hlsnap_i64((int64_t)n);
    return ok;
}

/* Makes values of the words behind FUNCTION, by its signature. */
static hlsnap_result parse_args(const options *o, const hlsnap_function *f, hlsnap_value *values, size_t *num,
                                hlsnap_error *err) {
    const char *type = strchr(f->signature, '(') + 1;
    const int given = o->num_args - 3;
    hlsnap_type t;
    for (*num = 0; *type != ')' && (int)*num < given; ++*num) {
        const char *word = o->args[3 + *num];
        const size_t n = strcspn(type, ",)");
        for (t = HLSNAP_VOID; t < HLSNAP_BYTES; t = (hlsnap_type)(t + 1))
            if (strlen(type_names[t]) == n && strncmp(type_names[t], type, n) == 0) break;
        if (t == HLSNAP_BYTES && word[0] == '@') {
            size_t size;
            const uint8_t *bytes = read_file(word + 1, &size, 256u << 20); /* more than any mailbox takes */
            if (!bytes) return fails(err, HLSNAP_ERR_OS, "%s: %s", word + 1, strerror(errno));
            values[*num] = hlsnap_bytes(bytes, size);
        } else if (!parse_value(word, t, &values[*num]))
            return fails(err, HLSNAP_ERR_SIGNATURE, "argument %zu of %s %s: '%s' is no %s", *num + 1, f->name, f->signature,
                         word, type_names[t]);
        type += n + (type[n] == ',');
    }
    if (*type == ')' && (int)*num == given) return HLSNAP_OK;
    return fails(err, HLSNAP_ERR_SIGNATURE, "%d arguments for %s %s", given, f->name, f->signature);
}

/* 64 bits are more than a JSON number surely holds, and it has neither infinity nor NaN: these are strings. */
static void result_json(const hlsnap_value *v) {
    const double f = v->type == HLSNAP_F32 ? (double)v->as.f32 : v->as.f64;
    size_t i;
    json("{'type':%s,'result':", type_names[v->type]);
    switch (v->type) {
    case HLSNAP_BOOL: json("%b", v->as.b); break;
    case HLSNAP_I32: printf("%d", v->as.i32); break;
    case HLSNAP_U32: printf("%u", v->as.u32); break;
    case HLSNAP_I64: printf("\"%lld\"", (long long)v->as.i64); break;
    case HLSNAP_U64: printf("\"%llu\"", llu(v->as.u64)); break;
    case HLSNAP_F32: case HLSNAP_F64: printf(f - f == 0 ? "%.*g" : "\"%.*g\"", v->type == HLSNAP_F32 ? 9 : 17, f); break;
    case HLSNAP_STR: json("%s", v->str); break;
    case HLSNAP_BYTES: putchar('"'); for (i = 0; i < v->size; i++) printf("%02x", v->bytes[i]); putchar('"'); break;
    case HLSNAP_VOID: case HLSNAP_TYPE_FORCE32: json("null"); break;
    }
    json("}\n");
}

static void print_result(const options *o, const hlsnap_value *v) {
    size_t i;
    if (o->json) {
        result_json(v);
        return;
    }
    if (o->raw && (v->type == HLSNAP_STR || v->type == HLSNAP_BYTES)) {
        fwrite(v->type == HLSNAP_STR ? (const void *)v->str : (const void *)v->bytes, 1, v->size, stdout);
        return;
    }
    switch (v->type) {
    case HLSNAP_BOOL: fputs(v->as.b ? "true" : "false", stdout); break;
    case HLSNAP_I32: printf("%d", v->as.i32); break;
    case HLSNAP_U32: printf("%u", v->as.u32); break;
    case HLSNAP_I64: printf("%lld", (long long)v->as.i64); break;
    case HLSNAP_U64: printf("%llu", llu(v->as.u64)); break;
    case HLSNAP_F32: printf("%.9g", (double)v->as.f32); break;
    case HLSNAP_F64: printf("%.17g", v->as.f64); break;
    case HLSNAP_STR: put(stdout, LINES, v->str); break;
    case HLSNAP_BYTES: for (i = 0; i < v->size; i++) printf("%02x", v->bytes[i]); break;
    case HLSNAP_VOID: case HLSNAP_TYPE_FORCE32: return;
    }
    putchar('\n');
}

static hlsnap_result call_export(const options *o, hlsnap_snapshot *s, const hlsnap_function *f, hlsnap_error *err) {
    static hlsnap_value values[HLSNAP_MAX_ARGS];
    hlsnap_sandbox_desc desc = HLSNAP_ZERO;
    hlsnap_function *host = NULL;
    hlsnap_sandbox *sb = NULL;
    hlsnap_value out = HLSNAP_ZERO;
    size_t num = 0, n = 0;
    hlsnap_result r = parse_args(o, f, values, &num, err);
    host = (hlsnap_function *)grow(NULL, HLSNAP_MAX_FUNCTIONS * sizeof(*host));
    for (; n < HLSNAP_MAX_FUNCTIONS && hlsnap_snapshot_import(s, n, &host[n]); n++) {
        host[n].fn = no_host;
        host[n].user = &host[n];
    }
    desc.hypervisor = hlsnap_kvm();
    desc.functions = host;
    desc.num_functions = n;
    desc.timeout_ns = o->timeout_ms * 1000000;
    desc.log = log_line;
    desc.log_level = 4;
    if (!r) r = give_maps(o, s, &desc, err);
    if (!r) r = hlsnap_sandbox_create_from(s, &desc, &sb, err);
    if (!r) r = hlsnap_sandbox_call(sb, f->name, values, num, &out, err);
    if (!r) print_result(o, &out);
    hlsnap_sandbox_destroy(sb);
    free(host);
    return r;
}

/* ---- programs: a Linux program's snapshot is made by start, and goes on by run without a function ---- */

#define PIECE 65536u         /* of input, at most */
#define FILES_DEPTH 100      /* of directories that are packed */
#define FILES_BYTES (4ull << 30)

/* The guest runtime, examples/guests/linux.c: in this program where it was compiled so, or a file beside it. */
#ifdef EMBED_RUNTIME
__asm__(".pushsection .rodata\nhlsnap_tool_runtime:\n.incbin \"linux.elf\"\nhlsnap_tool_runtime_end:\n.popsection");
extern const char runtime_bytes[] __asm__("hlsnap_tool_runtime") __attribute__((visibility("hidden")));
extern const char runtime_end[] __asm__("hlsnap_tool_runtime_end") __attribute__((visibility("hidden")));

static char *own_runtime(hlsnap_error *err) {
    const size_t size = (size_t)(runtime_end - runtime_bytes);
    const int fd = (int)syscall(SYS_memfd_create, "linux.elf", 1u /* MFD_CLOEXEC */);
    char path[64];
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    if (fd >= 0 && write(fd, runtime_bytes, size) == (ssize_t)size) return copy_of(path, strlen(path));
    fails(err, HLSNAP_ERR_OS, "the guest runtime: %s", strerror(errno));
    return NULL;
}
#else
static char *own_runtime(hlsnap_error *err) {
    char self[4096], *dir, *path;
    const ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
    self[n > 0 ? n : 0] = 0;
    dir = directory_of(self);
    path = join(dir, "linux.elf");
    free(dir);
    if (access(path, R_OK) == 0) return path;
    fails(err, HLSNAP_ERR_OS, "the guest runtime %s: %s; --runtime FILE says where it is", path, strerror(errno));
    free(path);
    return NULL;
}
#endif

/* ---- a directory as a ustar archive ---- */

typedef struct archived {
    char *at;
    size_t n, room;
} archived;

/* So many bytes more, zeroed, in whole blocks. */
static char *archive_more(archived *a, size_t n) {
    const size_t whole = (n + 511) / 512 * 512, was = a->n;
    if (whole > a->room - a->n) {
        a->room = (a->n + whole) * 2;
        a->at = (char *)grow(a->at, a->room);
    }
    a->n += whole;
    memset(a->at + was, 0, whole);
    return a->at + was;
}

/* What does not fit a name's 100 bytes goes in front of a slash, into the prefix's 155. */
static bool archive_name(char *header, const char *path) {
    const size_t n = strlen(path);
    const char *slash = n > 100 ? strchr(path + n - 101, '/') : path;
    const size_t front = (size_t)(slash - path);
    if (!slash || front > 155) return false;
    if (n > 100) memcpy(header + 345, path, front);
    memcpy(header, n > 100 ? slash + 1 : path, n > 100 ? n - front - 1 : n);
    return true;
}

static void archive_number(char *to, unsigned digits, uint64_t v) {
    while (digits--) {
        to[digits] = (char)('0' + (v & 7));
        v >>= 3;
    }
}

/* A member but for its bytes: where those go; NULL with the error. */
static char *archive_member(archived *a, const char *path, const struct stat *st, char type, const char *link, hlsnap_error *err) {
    const size_t size = type == '0' ? (size_t)st->st_size : 0, at = a->n;
    uint64_t sum = 0;
    unsigned i;
    char *h;
    if (size > FILES_BYTES || a->n > FILES_BYTES - size) {
        fails(err, HLSNAP_ERR_LIMIT, "--files: %s: more than %s", path, human(FILES_BYTES));
        return NULL;
    }
    h = archive_more(a, 512 + size);
    if (!archive_name(h, path) || strlen(link) > 100) {
        a->n = at;
        fails(err, HLSNAP_ERR_LIMIT, "--files: %s: a name that is too long for a ustar archive", path);
        return NULL;
    }
    archive_number(h + 100, 7, st->st_mode & 0777);
    archive_number(h + 108, 7, 0); /* owner and group */
    archive_number(h + 116, 7, 0);
    archive_number(h + 124, 11, size);
    archive_number(h + 136, 11, st->st_mtime > 0 ? (uint64_t)st->st_mtime : 0);
    memset(h + 148, ' ', 8);
    h[156] = type;
    memcpy(h + 157, link, strlen(link));
    memcpy(h + 257, "ustar\0" "00", 8);
    for (i = 0; i < 512; i++) sum += (unsigned char)h[i];
    archive_number(h + 148, 6, sum);
    h[154] = 0;
    return h + 512;
}

static hlsnap_result archive_file(archived *a, int at, const char *name, const char *path, hlsnap_error *err) {
    const int fd = openat(at, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
    struct stat st;
    char *to = NULL;
    size_t done = 0;
    ssize_t n = 1;
    if (fd < 0 || fstat(fd, &st) != 0) {
        if (fd >= 0) close(fd);
        return fails(err, HLSNAP_ERR_OS, "--files: %s: %s", path, strerror(errno));
    }
    if (S_ISREG(st.st_mode)) to = archive_member(a, path, &st, '0', "", err);
    else fails(err, HLSNAP_ERR_CHANGED, "--files: %s: not the file that it was", path);
    while (to && done < (size_t)st.st_size && (n > 0 || (n < 0 && errno == EINTR))) {
        n = read(fd, to + done, (size_t)st.st_size - done);
        done += n > 0 ? (size_t)n : 0;
    }
    if (to && n < 0) fails(err, HLSNAP_ERR_OS, "--files: %s: %s", path, strerror(errno));
    else if (to && done < (size_t)st.st_size) fails(err, HLSNAP_ERR_CHANGED, "--files: %s became shorter", path);
    close(fd);
    return err->code;
}

static int by_word(const void *a, const void *b) { return strcmp(*(const char *const *)a, *(const char *const *)b); }

/* The names in a directory, in order, so that the same tree makes the same archive. */
static char **names_in(int fd, size_t *num) {
    DIR *d = fdopendir(fd);
    const struct dirent *e;
    char **to = NULL;
    *num = 0;
    while (d && (e = readdir(d))) {
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0) continue;
        if ((*num & (*num - 1)) == 0) to = (char **)grow(to, (2 * *num + 1) * sizeof(char *));
        to[(*num)++] = copy_of(e->d_name, strlen(e->d_name));
    }
    if (d) closedir(d);
    if (*num) qsort(to, *num, sizeof(char *), by_word);
    return to;
}

static hlsnap_result archive_tree(archived *a, int at, const char *name, const char *path, int depth, hlsnap_error *err);

static hlsnap_result archive_one(archived *a, int at, const char *name, const char *path, int depth, hlsnap_error *err) {
    struct stat st;
    char link[102] = "";
    if (fstatat(at, name, &st, AT_SYMLINK_NOFOLLOW) != 0)
        return fails(err, HLSNAP_ERR_OS, "--files: %s: %s", path, strerror(errno));
    if (S_ISREG(st.st_mode)) return archive_file(a, at, name, path, err);
    if (S_ISLNK(st.st_mode)) {
        if (readlinkat(at, name, link, sizeof(link) - 1) < 0)
            return fails(err, HLSNAP_ERR_OS, "--files: %s: %s", path, strerror(errno));
        return archive_member(a, path, &st, '2', link, err) ? HLSNAP_OK : err->code;
    }
    if (!S_ISDIR(st.st_mode)) return fails(err, HLSNAP_ERR_FILE, "--files: %s: no file, directory or symbolic link", path);
    if (!archive_member(a, path, &st, '5', "", err)) return err->code;
    return archive_tree(a, at, name, path, depth, err);
}

static hlsnap_result archive_tree(archived *a, int at, const char *name, const char *path, int depth, hlsnap_error *err) {
    const int fd = openat(at, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | (*path ? O_NOFOLLOW : 0));
    const int names = fd < 0 ? -1 : dup(fd);
    hlsnap_result r = HLSNAP_OK;
    size_t num = 0, i;
    char **list = NULL;
    if (names < 0) r = fails(err, HLSNAP_ERR_OS, "--files: %s: %s", *path ? path : name, strerror(errno));
    else if (!depth) r = fails(err, HLSNAP_ERR_LIMIT, "--files: %s: too deep", path), close(names);
    else list = names_in(names, &num);
    for (i = 0; i < num; i++) {
        char *below = *path ? join(path, list[i]) : copy_of(list[i], strlen(list[i]));
        if (!r) r = archive_one(a, fd, list[i], below, depth - 1, err);
        free(below);
        free(list[i]);
    }
    free(list);
    if (fd >= 0) close(fd);
    return r;
}

/* --files: an archive as it is, or a directory made one. */
static hlsnap_result read_files(const char *path, archived *a, hlsnap_error *err) {
    hlsnap_result r;
    if (!is_directory(path)) {
        a->at = (char *)read_file(path, &a->n, FILES_BYTES);
        return a->at ? HLSNAP_OK : fails(err, HLSNAP_ERR_OS, "--files: %s: %s", path, strerror(errno));
    }
    r = archive_tree(a, AT_FDCWD, path, "", FILES_DEPTH, err);
    if (!r) archive_more(a, 1024); /* the end */
    return r;
}

/* ---- a conversation with a program ---- */

/* What it writes: as it is, for it is what it was started for. user: where fd 1 goes. */
static void program_writes(int fd, const void *bytes, size_t size, void *user) {
    FILE *to = fd == 1 ? (FILE *)user : stderr;
    fwrite(bytes, 1, size, to);
    fflush(to);
}

/* Gives a program input (or calls more, without), passes on what it writes, and learns whether it has ended: its status, or -1. */
static hlsnap_result talk(hlsnap_sandbox *sb, const char *what, const void *bytes, size_t n, FILE *to, int32_t *status,
                          hlsnap_error *err) {
    hlsnap_value out;
    hlsnap_result r = bytes ? hlsnap_sandbox_call(sb, what, HLSNAP_ARGS(hlsnap_bytes(bytes, n)), &out, err)
                            : hlsnap_sandbox_call(sb, what, HLSNAP_NO_ARGS, &out, err);
    while (!r && out.size) {
        program_writes(1, out.bytes, out.size, to);
        r = hlsnap_sandbox_call(sb, "more", HLSNAP_NO_ARGS, &out, err);
    }
    if (!r) r = hlsnap_sandbox_call(sb, "status", HLSNAP_NO_ARGS, &out, err);
    if (!r) *status = out.as.i32;
    return r;
}

/* All of a file, in pieces as they come, until the program ends or nobody reads what it says; and its end, if that is wanted. */
static hlsnap_result talk_on(hlsnap_sandbox *sb, int from, size_t piece, bool end, FILE *to, int32_t *status, hlsnap_error *err) {
    static char buffer[PIECE];
    hlsnap_result r = HLSNAP_OK;
    ssize_t n = 1;
    while (!r && *status < 0 && n && !ferror(to)) {
        n = read(from, buffer, piece);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return fails(err, HLSNAP_ERR_OS, "input: %s", strerror(errno));
        if (n || end) r = talk(sb, "feed", buffer, (size_t)n, to, status, err);
    }
    return r;
}

/* Whether a snapshot is one of a program as it is, which examples/guests/linux.c answers for. */
static bool is_program(const hlsnap_snapshot *s) {
    static const char *const all[][2] = {{"main", "i32()"}, {"feed", "bytes(bytes)"}, {"more", "bytes()"}, {"status", "i32()"}};
    hlsnap_function f;
    size_t i = 0;
    while (i < HLSNAP_COUNT(all) && hlsnap_snapshot_export(s, i, &f) && strcmp(f.name, all[i][0]) == 0 &&
           strcmp(f.signature, all[i][1]) == 0)
        i++;
    return i == HLSNAP_COUNT(all) && !hlsnap_snapshot_export(s, i, &f);
}

/* Half the mailbox is for a message, and a little of that for what stands around the bytes. */
static size_t piece_of(const hlsnap_snapshot *s) {
    hlsnap_region g;
    size_t i;
    for (i = 0; hlsnap_snapshot_region(s, i, &g); i++)
        if (strcmp(g.kind, "mailbox") == 0 && g.pages * PAGE / 4 < PIECE) return (size_t)(g.pages * PAGE / 4);
    return PIECE;
}

/* For a guest that is a program; to: the stream that takes what it writes to its standard output. */
static hlsnap_sandbox_desc program_desc(const options *o, FILE *to) {
    hlsnap_sandbox_desc desc = HLSNAP_ZERO;
    desc.hypervisor = hlsnap_kvm();
    desc.timeout_ns = o->timeout_ms * 1000000;
    desc.log = log_line;
    desc.log_level = 2;
    desc.output = program_writes;
    desc.output_user = to;
    return desc;
}

/* A program goes on with our standard input, until it ends: its exit status is ours. */
static hlsnap_result go_on(options *o, hlsnap_snapshot *s, hlsnap_error *err) {
    hlsnap_sandbox_desc desc = program_desc(o, stdout);
    hlsnap_sandbox *sb = NULL;
    int32_t status = -1;
    hlsnap_result r;
    if (o->json) return fails(err, HLSNAP_ERR_ARG, "--json is for functions; what a program writes is as it is");
    r = give_maps(o, s, &desc, err);
    if (!r) r = hlsnap_sandbox_create_from(s, &desc, &sb, err);
    if (!r) r = talk(sb, "more", NULL, 0, stdout, &status, err);
    if (!r) r = talk_on(sb, STDIN_FILENO, piece_of(s), true, stdout, &status, err);
    if (!r && status < 0 && !ferror(stdout)) r = fails(err, HLSNAP_ERR_PROTOCOL, "the program neither goes on nor ends");
    hlsnap_sandbox_destroy(sb);
    o->status = status & 255;
    return r;
}

static hlsnap_result run_run(options *o, hlsnap_error *err) {
    hlsnap_oci_desc desc = bar_begin(o, NULL, 1);
    hlsnap_snapshot *s = NULL;
    hlsnap_function f = HLSNAP_ZERO;
    hlsnap_oci_digest whole;
    hlsnap_result r = whole_ref(o->args[0], &o->args[1], &whole, err);
    size_t i;
    if (!r) r = in(o->args[0], hlsnap_oci_load(o->args[0], o->args[1], &desc, &s, NULL, err));
    bar_end();
    if (!r && o->num_args == 2 && !is_program(s))
        r = fails(err, HLSNAP_ERR_ARG, "FUNC is missing, and the guest is no program as it is; inspect lists what it exports");
    for (i = 0; !r && o->num_args > 2 && (!f.name || strcmp(f.name, o->args[2]) != 0); i++)
        if (!hlsnap_snapshot_export(s, i, &f))
            r = fails(err, HLSNAP_ERR_NOT_FOUND, "the guest exports no '%s'; inspect lists what it does", o->args[2]);
    if (!r) r = f.name ? call_export(o, s, &f, err) : go_on(o, s, err);
    hlsnap_snapshot_release(s);
    return r;
}

/* ---- start ---- */

/* A name without a slash that is no file here is looked for where a shell would. */
static char *find_program(const char *name) {
    const char *path = getenv("PATH");
    struct stat st;
    while (!strchr(name, '/') && access(name, R_OK) != 0 && path && *path) {
        const size_t n = strcspn(path, ":");
        char *dir = copy_of(n ? path : ".", n ? n : 1), *file = join(dir, name);
        free(dir);
        if (access(file, X_OK) == 0 && stat(file, &st) == 0 && S_ISREG(st.st_mode)) return file;
        free(file);
        path += n + (path[n] == ':');
    }
    return copy_of(name, strlen(name));
}

/* As far as it is to get before the snapshot: to its first wait for input, and through --input to the next. What it says on the way
   is not the snapshot's any more. */
static hlsnap_result warm(const options *o, hlsnap_sandbox *sb, hlsnap_error *err) {
    const bool piped = o->input && strcmp(o->input, "-") == 0;
    int fd = -1;
    int32_t status = -1;
    hlsnap_result r = HLSNAP_OK;
    if (o->input) fd = piped ? STDIN_FILENO : open(o->input, O_RDONLY | O_CLOEXEC);
    if (o->input && fd < 0) return fails(err, HLSNAP_ERR_OS, "%s: %s", o->input, strerror(errno));
    if (o->input || o->until_input) r = talk(sb, "more", NULL, 0, stderr, &status, err);
    if (!r && o->input) r = talk_on(sb, fd, PIECE, false, stderr, &status, err);
    if (fd > STDIN_FILENO) close(fd);
    if (r || status < 0) return r;
    err->user_code = status;
    return fails(err, HLSNAP_ERR_EXIT, "the program ended, with status %d, before it waited for %sinput", status,
                 o->input ? "more " : "");
}

static hlsnap_result save_program(const options *o, hlsnap_sandbox *sb, hlsnap_error *err) {
    hlsnap_oci_desc desc;
    hlsnap_oci_digest digest;
    hlsnap_snapshot *s = NULL;
    hlsnap_result r = hlsnap_sandbox_snapshot(sb, &s, err);
    desc = bar_begin(o, NULL, 1);
    if (!r) r = in(o->save_dir, hlsnap_oci_save(o->save_dir, o->save_tag, s, &desc, &digest, err));
    bar_end();
    hlsnap_snapshot_release(s);
    if (!r) copied(o, o->save_tag, &digest);
    return r;
}

static uint64_t whole_pages(uint64_t bytes) { return (bytes + PAGE - 1) / PAGE * PAGE; }

static hlsnap_result find_level(const char *name, hlsnap_cpu *level, hlsnap_error *err) {
    uint32_t i;
    for (i = 0; name && i < HLSNAP_COUNT(level_names); i++)
        if (strcmp(name, level_names[i]) == 0) return *level = (hlsnap_cpu)i, HLSNAP_OK;
    return name ? fails(err, HLSNAP_ERR_ARG, "--cpu %s: not host, v1, v2, v3 or v4", name) : HLSNAP_OK;
}

static hlsnap_result run_start(options *o, hlsnap_error *err) {
    hlsnap_guest_desc guest = HLSNAP_ZERO;
    hlsnap_sandbox_desc desc = program_desc(o, stderr);
    hlsnap_sandbox *sb = NULL;
    archived files = {NULL, 0, 0};
    char *program = find_program(o->args[0]), *own = o->runtime ? NULL : own_runtime(err);
    hlsnap_result r = o->runtime || own ? HLSNAP_OK : err->code;
    if (!r) r = find_level(o->cpu, &guest.cpu, err);
    if (!r) r = hlsnap_kvm_probe(err);
    if (!r && o->files) r = read_files(o->files, &files, err);
    guest.path = program;
    guest.runtime = o->runtime ? o->runtime : own;
    guest.args = o->args;
    guest.num_args = (size_t)o->num_args;
    guest.env = o->env.at;
    guest.num_env = o->env.num;
    guest.files = files.at;
    guest.files_size = files.n;
    guest.heap_size = whole_pages(o->heap);
    guest.stack_size = whole_pages(o->stack);
    guest.mailbox_size = 4 * PIECE;
    if (!r) r = give_maps(o, NULL, &desc, err);
    if (!r) r = hlsnap_sandbox_create(&guest, &desc, &sb, err);
    if (!r) r = warm(o, sb, err);
    if (!r) r = save_program(o, sb, err);
    hlsnap_sandbox_destroy(sb);
    free(files.at);
    free(program);
    free(own);
    return r;
}

/* ---- diff ---- */

typedef struct range { uint64_t gva, pages; } range;

typedef struct room { /* a region, or a map of which pages can be the snapshot's */
    const char *kind, *name; /* name: "" = a region */
    uint64_t gva, pages;
    bool hosts; /* what no extent has is not zero, but what the host gives */
} room;

typedef struct pair { /* a room that both have, or one of them */
    room of;
    uint64_t pages[2], both, differ; /* pages[i] = 0: the other's alone; both: the lesser of the two */
    size_t first, num;               /* of its ranges that differ */
} pair;

typedef struct fact { /* that is no memory, and differs */
    const char *what, *name, *is[2]; /* "" where a side has no such thing */
    bool counts;                     /* or is told, but makes no difference */
} fact;

typedef struct difference {
    view side[2];
    pair pairs[2 * MAX_ROOMS];
    size_t num_pairs, num_ranges, num_facts;
    range *ranges;
    fact *facts;
    uint64_t equal, differ, only[2], done, total; /* pages; done and total: bytes, for the bar */
    bool same;
    uint8_t *buffer[2];
} difference;

#define DIFF_PAGES 256u /* read at once */

static uint64_t least(uint64_t a, uint64_t b) { return a < b ? a : b; }

/* What begins at gva and is of one kind, at most so many pages: true, pages of *e from e->layer_page on; false, zeros. To be asked
   for in ascending order. */
static bool piece_at(view *v, uint64_t gva, uint64_t most, hlsnap_extent *e, uint64_t *pages) {
    uint64_t skip;
    while (hlsnap_snapshot_extent(v->s, v->extent, e) && e->gva + e->pages * PAGE <= gva) v->extent++;
    *pages = most;
    if (!hlsnap_snapshot_extent(v->s, v->extent, e)) return false;
    if (e->gva > gva) return *pages = least(most, (e->gva - gva) / PAGE), false;
    skip = (gva - e->gva) / PAGE;
    e->layer_page += skip;
    *pages = least(most, e->pages - skip);
    return true;
}

static void page_differs(difference *d, pair *p, uint64_t gva) {
    range *last = p->num ? &d->ranges[p->first + p->num - 1] : NULL;
    p->differ++;
    if (last && last->gva + last->pages * PAGE == gva) {
        last->pages++;
        return;
    }
    if ((d->num_ranges & (d->num_ranges - 1)) == 0) d->ranges = (range *)grow(d->ranges, (2 * d->num_ranges + 1) * sizeof(range));
    d->ranges[d->num_ranges].gva = gva;
    d->ranges[d->num_ranges++].pages = 1;
    p->num++;
}

/* Pages that an extent has, from its blob: of a map that was not captured, hlsnap_snapshot_read has none. */
static hlsnap_result read_extent(const view *v, const hlsnap_extent *e, void *to, size_t size, hlsnap_error *err) {
    const char *name = show("blobs/sha256/%s", v->layers[e->layer].memory.text + 7);
    char *path = join(v->dir, name);
    const int fd = open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    const ssize_t n = fd < 0 ? -1 : pread(fd, to, size, (off_t)(e->layer_page * PAGE));
    hlsnap_result r = HLSNAP_OK;
    if (n < 0) r = fails(err, HLSNAP_ERR_OS, "%s: %s", name, strerror(errno));
    else if ((size_t)n < size) r = fails(err, HLSNAP_ERR_CHANGED, "%s: shorter than it was", name);
    if (fd >= 0) close(fd);
    free(path);
    return in(v->dir, r);
}

/* e: what each side has there, in a map that was not captured; else NULL. */
static hlsnap_result compare_pages(difference *d, pair *p, const hlsnap_extent *const e[2], uint64_t gva, uint64_t pages,
                                   hlsnap_error *err) {
    hlsnap_result r = HLSNAP_OK;
    hlsnap_extent at;
    uint64_t done, n, i;
    for (done = 0; done < pages && !r; done += n, gva += n * PAGE) {
        n = least(pages - done, DIFF_PAGES);
        for (i = 0; i < 2 && !r; i++) {
            if (e) at = *e[i], at.layer_page += done;
            r = e ? read_extent(&d->side[i], &at, d->buffer[i], (size_t)n * PAGE, err)
                  : in(d->side[i].dir, hlsnap_snapshot_read(d->side[i].s, gva, d->buffer[i], (size_t)n * PAGE, err));
        }
        if (r || memcmp(d->buffer[0], d->buffer[1], (size_t)n * PAGE) == 0) continue;
        for (i = 0; i < n; i++)
            if (memcmp(d->buffer[0] + i * PAGE, d->buffer[1] + i * PAGE, PAGE) != 0) page_differs(d, p, gva + i * PAGE);
    }
    return r;
}

/* Pages that neither stores are equal, and so are those that both have from one place of the same blob. Where what is not stored is
   the host's, a page that only one stores differs. */
static hlsnap_result compare_pair(difference *d, pair *p, hlsnap_error *err) {
    hlsnap_extent a, b;
    uint64_t at, n, i;
    hlsnap_result r = HLSNAP_OK;
    p->first = d->num_ranges;
    for (at = 0; at < p->both && !r; at += n) {
        const uint64_t gva = p->of.gva + at * PAGE;
        const bool has_a = piece_at(&d->side[0], gva, p->both - at, &a, &n), has_b = piece_at(&d->side[1], gva, n, &b, &n);
        const bool one = has_a && has_b && a.layer_page == b.layer_page &&
                         strcmp(d->side[0].layers[a.layer].memory.text, d->side[1].layers[b.layer].memory.text) == 0;
        const hlsnap_extent *const e[2] = {&a, &b};
        if (p->of.hosts && has_a != has_b)
            for (i = 0; i < n; i++) page_differs(d, p, gva + i * PAGE);
        else if ((has_a || has_b) && !one) r = compare_pages(d, p, p->of.hosts ? e : NULL, gva, n, err);
        d->done += n * PAGE;
        if (!r && !bar_step(d->done, d->total, NULL)) r = fails(err, HLSNAP_ERR_CANCELLED, "interrupted");
    }
    d->differ += p->differ;
    d->equal += p->both - p->differ;
    d->only[0] += p->pages[0] - p->both;
    d->only[1] += p->pages[1] - p->both;
    return r;
}

/* In ascending order: maps lie above regions. Of READ and SHARED maps that were not captured, a snapshot has nothing. */
static size_t rooms_of(const hlsnap_snapshot *s, room to[MAX_ROOMS]) {
    hlsnap_region g;
    hlsnap_map m;
    size_t num = 0, i;
    for (i = 0; hlsnap_snapshot_region(s, i, &g); i++) to[num++] = (room){g.kind, "", g.gva, g.pages, false};
    for (i = 0; hlsnap_snapshot_map(s, i, &m); i++)
        if (m.capture || m.mode == HLSNAP_MAP_PRIVATE)
            to[num++] = (room){"map", m.name, m.gva, region_of(&m).pages, !m.capture};
    return num;
}

static bool same_room(const room *a, const room *b) {
    return a->gva == b->gva && a->hosts == b->hosts && strcmp(a->kind, b->kind) == 0 && strcmp(a->name, b->name) == 0;
}

/* Regions are the same one when kind and address are, and maps when name and address are, and both captured or neither. */
static void pair_rooms(difference *d) {
    static room all[2][MAX_ROOMS];
    const size_t num[2] = {rooms_of(d->side[0].s, all[0]), rooms_of(d->side[1].s, all[1])};
    size_t at[2] = {0, 0}, i;
    for (; at[0] < num[0] || at[1] < num[1]; d->num_pairs++) {
        const room *a = at[0] < num[0] ? &all[0][at[0]] : NULL, *b = at[1] < num[1] ? &all[1][at[1]] : NULL;
        const bool both = a && b && same_room(a, b);
        const bool has[2] = {both || (a && (!b || a->gva <= b->gva)), both || !a || (b && b->gva < a->gva)};
        pair *p = &d->pairs[d->num_pairs];
        p->of = *(has[0] ? a : b);
        for (i = 0; i < 2; i++)
            if (has[i]) p->pages[i] = all[i][at[i]++].pages;
        p->both = least(p->pages[0], p->pages[1]);
        d->total += p->both * PAGE;
    }
}

static void add_fact(difference *d, bool counts, const char *what, const char *name, const char *a, const char *b) {
    const fact f = {what, name, {a, b}, counts};
    if (strcmp(a, b) == 0) return;
    d->facts = (fact *)grow(d->facts, (d->num_facts + 1) * sizeof(*d->facts));
    d->facts[d->num_facts++] = f;
    d->same = d->same && !counts;
}

static const char *signature_of(const hlsnap_snapshot *s, contract_part part, const char *name) {
    hlsnap_function f;
    size_t i;
    for (i = 0; part(s, i, &f); i++)
        if (strcmp(f.name, name) == 0) return f.signature;
    return "";
}

static bool needs_feature(const hlsnap_snapshot *s, const char *name) {
    const char *other;
    size_t i;
    for (i = 0; (other = hlsnap_snapshot_feature(s, i)); i++)
        if (strcmp(other, name) == 0) return true;
    return false;
}

/* What one side has and the other has otherwise or not; with them, what only the other has. */
static void find_contract(difference *d, const char *what, contract_part part) {
    const hlsnap_snapshot *a = d->side[0].s, *b = d->side[1].s;
    hlsnap_function f;
    size_t i;
    for (i = 0; part(a, i, &f); i++) add_fact(d, true, what, f.name, f.signature, signature_of(b, part, f.name));
    for (i = 0; part(b, i, &f); i++)
        if (!signature_of(a, part, f.name)[0]) add_fact(d, true, what, f.name, "", f.signature);
}

/* What a side says of a map; "" = it has none of that name. */
static const char *told_of(const hlsnap_snapshot *s, char (*told)[200], const char *name) {
    hlsnap_map m;
    size_t i;
    for (i = 0; hlsnap_snapshot_map(s, i, &m); i++)
        if (strcmp(m.name, name) == 0) return told[i];
    return "";
}

static void find_maps(difference *d) {
    static char told[2][HLSNAP_MAX_MAPS][200];
    const hlsnap_snapshot *s[2] = {d->side[0].s, d->side[1].s};
    hlsnap_map m;
    size_t i, k;
    for (k = 0; k < 2; k++)
        for (i = 0; hlsnap_snapshot_map(s[k], i, &m); i++)
            snprintf(told[k][i], sizeof(told[k][i]), "%s %s 0x%llx %llu%s%s", mode_of(&m), source_of(&m), llu(m.gva), llu(m.size),
                     m.digest ? " " : "", m.digest ? m.digest : "");
    for (i = 0; hlsnap_snapshot_map(s[0], i, &m); i++)
        add_fact(d, true, "map", m.name, told[0][i], told_of(s[1], told[1], m.name));
    for (i = 0; hlsnap_snapshot_map(s[1], i, &m); i++)
        if (!told_of(s[0], told[0], m.name)[0]) add_fact(d, true, "map", m.name, "", told[1][i]);
}

static void find_facts(difference *d) {
    static char entry[2][24], generation[2][24];
    const hlsnap_snapshot_info *a = &d->side[0].info, *b = &d->side[1].info;
    const char *name;
    size_t i, side;
    for (i = 0; i < 2; i++) {
        snprintf(entry[i], sizeof(entry[i]), "0x%llx", llu(d->side[i].info.entry));
        snprintf(generation[i], sizeof(generation[i]), "%llu", llu(d->side[i].info.generation));
    }
    add_fact(d, true, "entry", "", entry[0], entry[1]);
    add_fact(d, false, "guest", "", a->guest_name, b->guest_name);
    add_fact(d, false, "build id", "", a->build_id, b->build_id);
    add_fact(d, false, "CPU vendor", "", a->cpu_vendor, b->cpu_vendor);
    add_fact(d, false, "hypervisor", "", a->hypervisor, b->hypervisor);
    add_fact(d, false, "generation", "", generation[0], generation[1]);
    find_contract(d, "export", hlsnap_snapshot_export);
    find_contract(d, "import", hlsnap_snapshot_import);
    find_maps(d);
    for (side = 0; side < 2; side++)
        for (i = 0; (name = hlsnap_snapshot_feature(d->side[side].s, i)); i++)
            if (!needs_feature(d->side[!side].s, name))
                add_fact(d, true, "feature", name, side ? "" : "needed", side ? "needed" : "");
}

/* Of regions, or of maps. */
static void pairs_json(const difference *d, bool maps) {
    const char *comma = "";
    size_t i, k;
    for (i = 0; i < d->num_pairs; i++) {
        const pair *p = &d->pairs[i];
        if ((p->of.name[0] != 0) != maps) continue;
        json(comma), json(maps ? "{'name':%s," : "{'kind':%s,", maps ? p->of.name : p->of.kind);
        json("'gva':%x,'pages_a':%u,'pages_b':%u,'equal':%u,'differ':%u,'ranges':[", p->of.gva, p->pages[0], p->pages[1],
             p->both - p->differ, p->differ);
        for (k = p->first; k < p->first + p->num; k++)
            json(k > p->first ? ",\n" : ""), json("{'gva':%x,'pages':%u}", d->ranges[k].gva, d->ranges[k].pages);
        json("]}");
        comma = ",\n";
    }
}

static void diff_json(const difference *d) {
    size_t i;
    json("{'same':%b,\n'a':%s,\n'b':%s,\n'equal':%u,\n'differ':%u,\n'only_a':%u,\n'only_b':%u,\n'regions':[", d->same,
         d->side[0].oci.digest.text, d->side[1].oci.digest.text, d->equal, d->differ, d->only[0], d->only[1]);
    pairs_json(d, false);
    json("],\n'maps':[");
    pairs_json(d, true);
    json("],\n'facts':[");
    for (i = 0; i < d->num_facts; i++) {
        const fact *f = &d->facts[i];
        json(i ? ",\n" : ""),
            json("{'what':%s,'name':%s,'a':%s,'b':%s,'counts':%b}", f->what, f->name, f->is[0], f->is[1], f->counts);
    }
    json("]}\n");
}

static const char *room_name(const room *of) { return of->name[0] ? show("map %s", of->name) : of->kind; }

static void diff_table(const difference *d) {
    table t = {"llrrrr", NULL, 0};
    size_t i;
    row(&t, "REGION\tGVA\tEQUAL\tDIFFER\tONLY A\tONLY B");
    for (i = 0; i < d->num_pairs; i++) {
        const pair *p = &d->pairs[i];
        row(&t, "%s\t0x%llx\t%llu\t%llu\t%llu\t%llu", room_name(&p->of), llu(p->of.gva), llu(p->both - p->differ),
            llu(p->differ), llu(p->pages[0] - p->both), llu(p->pages[1] - p->both));
    }
    row(&t, "all\t\t%llu\t%llu\t%llu\t%llu", llu(d->equal), llu(d->differ), llu(d->only[0]), llu(d->only[1]));
    table_print(&t);
}

static void diff_lines(const difference *d, bool all) {
    const size_t most = all ? SIZE_MAX : 10;
    size_t i, k;
    for (i = 0; i < 2; i++) printf("%c  %s  %s\n", "AB"[i], brief(&d->side[i].oci.digest), show("%s", d->side[i].ref));
    putchar('\n');
    diff_table(d);
    for (i = 0; i < d->num_pairs; i++) {
        const pair *p = &d->pairs[i];
        if (p->num) printf("\n%s differs at\n", room_name(&p->of));
        for (k = 0; k < p->num && k < most; k++) {
            const range *g = &d->ranges[p->first + k];
            printf("  0x%llx..0x%llx  %llu\n", llu(g->gva), llu(g->gva + g->pages * PAGE), llu(g->pages));
        }
        if (p->num > most) printf("  and %zu ranges more (--all)\n", p->num - most);
    }
    putchar('\n');
    for (i = 0; i < d->num_facts; i++) {
        const fact *f = &d->facts[i];
        printf("%s%s%s: A %s, B %s\n", f->what, f->name[0] ? " " : "", f->name, f->is[0][0] ? show("%s", f->is[0]) : "-",
               f->is[1][0] ? show("%s", f->is[1]) : "-");
    }
    puts(d->same ? "same" : "different");
}

static hlsnap_result run_diff(options *o, hlsnap_error *err) {
    static difference d; /* large */
    hlsnap_oci_desc desc = o->verify ? bar_begin(o, diff_passes, HLSNAP_COUNT(diff_passes)) : bar_begin(o, NULL, 1);
    hlsnap_result r;
    size_t i;
    desc.guard = HLSNAP_OCI_GUARD_NONE;
    desc.any_cpu = true;
    desc.disable_verify = !o->verify;
    r = view_open(&d.side[0], o->args[0], o->args[1], &desc, err);
    if (o->verify) bar_pass(1, seconds());
    if (!r) r = view_open(&d.side[1], o->args[o->num_args == 4 ? 2 : 0], o->args[o->num_args - 1], &desc, err);
    if (o->verify) bar_pass(2, seconds());
    if (!r) pair_rooms(&d);
    for (i = 0; i < 2; i++) d.buffer[i] = (uint8_t *)grow(NULL, DIFF_PAGES * PAGE);
    for (i = 0; i < d.num_pairs && !r; i++) r = compare_pair(&d, &d.pairs[i], err);
    bar_end();
    d.same = !d.differ && !d.only[0] && !d.only[1];
    if (!r) find_facts(&d);
    if (!r && o->json) diff_json(&d);
    else if (!r) diff_lines(&d, o->all);
    o->status = !d.same;
    for (i = 0; i < 2; i++) hlsnap_snapshot_release(d.side[i].s), free(d.buffer[i]);
    free(d.ranges);
    free(d.facts);
    return r;
}

/* ---- map: rows of cells, each of one page, or of 2, 4, ... so that a region has at most 32 rows ---- */

#define MAP_COLUMNS 64u
#define MAP_ROWS 32u
#define MAP_PITCH 13u /* of cells; the last two are the gap */
#define MAP_CELL 11u
#define MAP_LEFT 142u
#define MAP_WIDTH 1000u

typedef struct plot { /* of a region, or of a map */
    hlsnap_region g;
    const char *map; /* its name, or NULL */
    uint64_t per_cell, stored;
    uint32_t cells, y; /* y of its first row */
} plot;

static const char map_style[] =
    "<style>\n"
    "text{font:12px system-ui,-apple-system,\"Segoe UI\",\"DejaVu Sans\",sans-serif;fill:#1f2328}\n"
    ".mono{font-family:ui-monospace,\"SF Mono\",\"DejaVu Sans Mono\",monospace}.soft{fill:#636c76}\n"
    ".title{font-size:20px;font-weight:600}.name{font-size:13px;font-weight:600}.at{font-size:9.5px;text-anchor:end}\n"
    ".page{fill:#fff}.zero{fill:#e4e7eb}.none{fill:none;stroke:#c3c9d1}\n"
    "@media (prefers-color-scheme:dark){text{fill:#e6edf3}.soft{fill:#8d96a0}.page{fill:#0d1117}.zero{fill:#252c36}"
    ".none{stroke:#4a5360}}\n"
    "</style>\n";

/* Colours that differ in lightness too, and stand on white and on black. */
static const char *layer_colour(uint32_t layer) {
    static const char *const first[] = {"#4e79a7", "#f28e2b", "#59a14f", "#e15759", "#b07aa1", "#2ab0b8", "#c9a227", "#9c755f"};
    if (layer < HLSNAP_COUNT(first)) return first[layer];
    return show("hsl(%u,%u%%,%u%%)", layer * 137 % 360, 45 + layer % 3 * 15, 42 + layer % 4 * 7);
}

/* Where it begins. Returns where the next one does. */
static uint32_t plot_place(const view *v, plot *p, uint32_t y) {
    p->per_cell = 1;
    while ((p->g.pages + p->per_cell - 1) / p->per_cell > MAP_COLUMNS * MAP_ROWS) p->per_cell *= 2;
    p->cells = (uint32_t)((p->g.pages + p->per_cell - 1) / p->per_cell);
    p->stored = stored_in(v->s, &p->g);
    p->y = y + 22;
    return p->y + (p->cells + MAP_COLUMNS - 1) / MAP_COLUMNS * MAP_PITCH + 22;
}

/* Regions, and maps behind them; *num: how many. Returns the height of it all. */
static uint32_t map_place(const view *v, plot plots[MAX_ROOMS], size_t *num, uint32_t y) {
    hlsnap_map m;
    size_t i;
    memset(plots, 0, MAX_ROOMS * sizeof(*plots));
    for (*num = 0; hlsnap_snapshot_region(v->s, *num, &plots[*num].g); ++*num) {
    }
    for (i = 0; hlsnap_snapshot_map(v->s, i, &m); i++) {
        plots[*num].g = region_of(&m);
        plots[(*num)++].map = m.name;
    }
    for (i = 0; i < *num; i++) y = plot_place(v, &plots[i], y);
    return y;
}

/* How many pages of each layer each cell has: counts[cell * layers + layer]. The caller frees. */
static uint32_t *map_count(const view *v, const plot *p) {
    uint32_t *counts = (uint32_t *)grow(NULL, (size_t)p->cells * v->num_layers * sizeof(*counts));
    hlsnap_extent e;
    size_t i;
    memset(counts, 0, (size_t)p->cells * v->num_layers * sizeof(*counts));
    for (i = 0; hlsnap_snapshot_extent(v->s, i, &e); i++) {
        uint64_t page = (e.gva - p->g.gva) / PAGE, left = e.pages, n;
        if (e.gva < p->g.gva || page >= p->g.pages) continue;
        for (; left; left -= n, page += n) {
            n = least(left, p->per_cell - page % p->per_cell);
            counts[page / p->per_cell * v->num_layers + e.layer] += (uint32_t)n;
        }
    }
    return counts;
}

static void map_cells(FILE *f, const plot *p) {
    uint32_t c;
    fprintf(f, "<path class='%s' d='", p->g.stored ? "zero" : "none");
    for (c = 0; c < p->cells; c++) {
        const uint32_t x = MAP_LEFT + c % MAP_COLUMNS * MAP_PITCH, y = p->y + c / MAP_COLUMNS * MAP_PITCH;
        if (p->g.stored) fprintf(f, "M%u %uh%uv%uh-%uz", x, y, MAP_CELL, MAP_CELL, MAP_CELL);
        else fprintf(f, "M%u.5 %u.5h%uv%uh-%uz", x, y, MAP_CELL - 1, MAP_CELL - 1, MAP_CELL - 1);
    }
    fprintf(f, "'/>\n");
}

/* A layer's share of each cell, beside the shares of the layers below it; no less than can be seen. */
static void map_layer(FILE *f, const view *v, const plot *p, const uint32_t *counts, uint32_t layer) {
    bool any = false;
    uint32_t c, k, before;
    for (c = 0; c < p->cells; c++) {
        const uint32_t *of = counts + (size_t)c * v->num_layers;
        const double pages = (double)least(p->per_cell, p->g.pages - c * p->per_cell);
        double x, width = MAP_CELL * of[layer] / pages;
        if (!of[layer]) continue;
        for (before = k = 0; k < layer; k++) before += of[k];
        x = MAP_CELL * before / pages;
        if (width < 2) width = 2;
        if (x > MAP_CELL - width) x = MAP_CELL - width;
        if (!any) fprintf(f, "<path fill='%s' data-layer='%u' d='", layer_colour(layer), layer);
        any = true;
        fprintf(f, "M%.4g %uh%.3gv%uh-%.3gz", MAP_LEFT + c % MAP_COLUMNS * MAP_PITCH + x, p->y + c / MAP_COLUMNS * MAP_PITCH,
                width, MAP_CELL, width);
    }
    if (any) fprintf(f, "'><title>layer %u</title></path>\n", layer);
}

static void map_region(FILE *f, const view *v, const plot *p) {
    uint32_t *counts = map_count(v, p);
    uint32_t i;
    fprintf(f, "<g data-%s='%s' data-gva='0x%llx' data-pages='%llu' data-stored='%llu' data-cells='%u'>\n",
            p->map ? "map" : "region", p->map ? p->map : p->g.kind, llu(p->g.gva), llu(p->g.pages), llu(p->stored), p->cells);
    fprintf(f, "<text x='%u' y='%u'><tspan class='name'>%s%s%s</tspan> <tspan class='soft mono'>%s</tspan>", MAP_LEFT, p->y - 7,
            p->g.kind, p->map ? " " : "", p->map ? p->map : "", rights(&p->g));
    fprintf(f, "<tspan class='soft' dx='10'>%llu page%s (%s)", llu(p->g.pages), p->g.pages == 1 ? "" : "s",
            human(p->g.pages * PAGE));
    if (p->g.stored || p->stored) fprintf(f, ", %llu stored", llu(p->stored));
    if (p->per_cell > 1) fprintf(f, "; a cell is %llu pages (%s)", llu(p->per_cell), human(p->per_cell * PAGE));
    fprintf(f, "</tspan></text>\n");
    for (i = 0; i < p->cells; i += 4 * MAP_COLUMNS)
        fprintf(f, "<text class='at soft mono' x='%u' y='%u'>0x%llx</text>\n", MAP_LEFT - 8,
                p->y + i / MAP_COLUMNS * MAP_PITCH + 9, llu(p->g.gva + i * p->per_cell * PAGE));
    map_cells(f, p);
    for (i = 0; i < v->num_layers; i++) map_layer(f, v, p, counts, i);
    fprintf(f, "</g>\n");
    free(counts);
}

static void map_legend(FILE *f, const view *v, bool maps) {
    uint32_t i, y = 112;
    for (i = 0; i < v->num_layers; i++, y += 19)
        fprintf(f,
                "<rect x='%u' y='%u' width='11' height='11' fill='%s'/><text x='%u' y='%u'>layer %u <tspan class='mono soft' "
                "dx='6'>%s</tspan>"
                "<tspan class='soft' dx='6'>%s, %llu of %llu pages shown</tspan></text>\n",
                MAP_LEFT, y, layer_colour(i), MAP_LEFT + 19, y + 10, i, brief(&v->layers[i].memory),
                human(v->layers[i].pages * PAGE), llu(v->shown[i]), llu(v->layers[i].pages));
    fprintf(
        f,
        "<rect class='zero' x='%u' y='%u' width='11' height='11'/><text class='soft' x='%u' y='%u'>zero, not stored</text>\n",
        MAP_LEFT, y, MAP_LEFT + 19, y + 10);
    fprintf(f,
            "<rect class='none' x='%u.5' y='%u.5' width='10' height='10'/><text class='soft' x='%u' y='%u'>made anew at every "
            "start%s</text>\n",
            MAP_LEFT + 160, y, MAP_LEFT + 179, y + 10, maps ? ", or what the host gives" : "");
}

static void map_write(FILE *f, const view *v) {
    plot plots[MAX_ROOMS];
    size_t num, i;
    const uint32_t height = map_place(v, plots, &num, 112 + 19 * (v->num_layers + 1) + 14);
    const uint64_t of_maps = stored_in_maps(v->s), stored = v->info.stored_pages - of_maps;
    fprintf(f, "<svg xmlns='http://www.w3.org/2000/svg' width='%u' height='%u' viewBox='0 0 %u %u' role='img'>\n<title>",
            MAP_WIDTH, height, MAP_WIDTH, height);
    put(f, XML, v->ref);
    fprintf(f,
            ": memory of an hlsnap snapshot</title>\n%s<rect class='page' width='100%%' height='100%%'/>\n<text class='title' "
            "x='%u' y='42'>",
            map_style, MAP_LEFT);
    put(f, XML, strlen(v->ref) > 40 ? show("%.40s...", v->ref) : v->ref);
    fprintf(f, "<tspan class='soft name' dx='12'>");
    put(f, XML, v->info.guest_name);
    fprintf(f, "</tspan></text>\n<text class='soft mono' x='%u' y='66'>%s</text>\n", MAP_LEFT, v->oci.digest.text);
    fprintf(f,
            "<text class='soft' x='%u' y='88'>%llu pages (%s), %llu stored (%s)%s; %s on disk, %s of it nobody else's</text>\n",
            MAP_LEFT, llu(v->info.pages), human(v->info.pages * PAGE), llu(stored), human(stored * PAGE),
            of_maps ? show(", of maps %llu (%s)", llu(of_maps), human(of_maps * PAGE)) : "", human(v->oci.bytes),
            own(v->oci.own_bytes));
    map_legend(f, v, num && plots[num - 1].map);
    for (i = 0; i < num; i++) map_region(f, v, &plots[i]);
    fprintf(f, "</svg>\n");
}

/* False, with errno, when not all of it was written. */
static bool close_written(FILE *f) {
    const bool whole = fflush(f) == 0 && !ferror(f);
    const int e = errno;
    if (fclose(f) != 0) return false;
    errno = e;
    return whole;
}

static hlsnap_result run_map(options *o, hlsnap_error *err) {
    const hlsnap_oci_desc desc = looking();
    FILE *f = stdout;
    view v;
    hlsnap_result r;
    if (o->json && !o->output) return fails(err, HLSNAP_ERR_ARG, "--json needs -o FILE");
    r = view_open(&v, o->args[0], o->args[1], &desc, err);
    if (!r && o->output && !(f = fopen(o->output, "w"))) r = fails(err, HLSNAP_ERR_OS, "%s: %s", o->output, strerror(errno));
    if (!r) map_write(f, &v);
    if (!r && o->output && !close_written(f)) r = fails(err, HLSNAP_ERR_OS, "%s: %s", o->output, strerror(errno));
    if (!r && o->json) json("{'file':%s,'digest':%s}\n", o->output, v.oci.digest.text);
    hlsnap_snapshot_release(v.s);
    return r;
}

/* ---- the command line ---- */

typedef enum option_kind {
    FLAG, TEXT, PAIRS /* NAME=..., more than once */, SAVE /* two words, or DIR:TAG */,
    NUMBER, BYTES, SECONDS, MILLISECONDS /* units of a plain number */
} option_kind;

#define FLAG_AT(member) FLAG, offsetof(options, member), 0, 0
#define TEXT_AT(member) TEXT, offsetof(options, member), 0, 0
#define PAIRS_AT(member) PAIRS, offsetof(options, member), 0, 0
#define TRILLION 1000000000000u

static const struct option_row {
    const char *name, *value, *help;
    option_kind kind;
    size_t at; /* in options */
    uint64_t from, to;
} option_rows[] = {
    {"--json", NULL, "one JSON value instead of text for people", FLAG_AT(json)},
    {"--json-lines", NULL, "one JSON object for each snapshot or problem, a line each", FLAG_AT(json_lines)},
    {"--long", NULL, "digests in full", FLAG_AT(full)},
    {"--match", "GLOB", "tags that match", TEXT_AT(match)},
    {"--tagged", NULL, "entries with a tag", FLAG_AT(tagged)},
    {"--untagged", NULL, "entries without one", FLAG_AT(untagged)},
    {"--older-than", "TIME", "created longer ago than 90m, 12h, 2d; plain: seconds", SECONDS, offsetof(options, older_ms), 0,
     TRILLION},
    {"--newer-than", "TIME", "created less long ago", SECONDS, offsetof(options, newer_ms), 0, TRILLION},
    {"--sort", "KEY", "name, size, own, created; largest and newest first", TEXT_AT(sort)},
    {"--reverse", NULL, "the other way round", FLAG_AT(reverse)},
    {"--limit", "N", "the first N", NUMBER, offsetof(options, limit), 1, TRILLION},
    {"--all", NULL, "verify: all snapshots; diff: all ranges of pages, not 10", FLAG_AT(all)},
    {"--verify", NULL, "hash all that is shown first: believe no digest", FLAG_AT(verify)},
    {"--any-cpu", NULL, "also a snapshot that this CPU cannot run", FLAG_AT(any_cpu)},
    {"--keep-last", "N", "the N newest tags stay", NUMBER, offsetof(options, keep_last), 0, TRILLION},
    {"--dry-run", NULL, "say what would be done, and do nothing", FLAG_AT(dry_run)},
    {"--gc", NULL, "then free what no tag leads to", FLAG_AT(gc)},
    {"--repair", NULL, "remove damaged blobs that nobody needs, and the like", FLAG_AT(repair)},
    {"--raw", NULL, "str and bytes as they are: no escapes, no hex, no line end", FLAG_AT(raw)},
    {"--threads", "N", "threads that hash, 1 to 64 (one for each CPU, at most 8)", NUMBER, offsetof(options, threads), 1, 64},
    {"--timeout", "TIME", "time limit: 500ms, 10s; plain: milliseconds; 0: none (10s)", MILLISECONDS,
     offsetof(options, timeout_ms), 0, TRILLION},
    {"--grace", "TIME", "what is younger stays: 90s, 30m, 2d; plain: seconds;\n                      0 = nobody else writes (1h)",
     SECONDS, offsetof(options, grace_ms), 0, TRILLION},
    {"--wait", "TIME", "wait so long for others that write (for ever)", SECONDS,
     offsetof(options, wait_ms), 0, TRILLION},
    {"--ref", "REF", "the snapshot that is meant, where there are several", TEXT_AT(ref)},
    {"--max-bytes", "N", "refuse more, such as 512M or 2G (import: 16G)", BYTES, offsetof(options, max_bytes), 1, 1ull << 60},
    {"--save", "DIR TAG", "or DIR:TAG: where the snapshot goes", SAVE, 0, 0, 0},
    {"--files", "PATH", "a tar (ustar) or a directory: the files that it sees in /", TEXT_AT(files)},
    {"--env", "NAME=VALUE", "once for each; it has no others", PAIRS_AT(env)},
    {"--map", "NAME=PATH", "a file that it finds by name; SHARED ones are written to", PAIRS_AT(maps)},
    {"--until-input", NULL, "run it until it waits for input; else it has not begun", FLAG_AT(until_input)},
    {"--input", "FILE", "then give it this, or - for standard input, and run it on", TEXT_AT(input)},
    {"--runtime", "FILE", "the guest runtime: examples/guests/linux.c, compiled", TEXT_AT(runtime)},
    {"--cpu", "LEVEL", "what CPU it sees: v1, v2, v3, v4, or this one (host)", TEXT_AT(cpu)},
    {"--heap", "N", "bytes of its heap, such as 256M (64M)", BYTES, offsetof(options, heap), 1, 16ull << 30},
    {"--stack", "N", "bytes of its stack (1M)", BYTES, offsetof(options, stack), 1, 1ull << 30},
    {"-o", "FILE", "write there instead of to standard output", TEXT_AT(output)},
};

static hlsnap_result run_completion(options *o, hlsnap_error *err);

static const command commands[] = {
    {"ls", "DIR", "", 1, 1,
     "--json --json-lines --long --match --tagged --untagged --older-than --newer-than --sort --reverse --limit",
     "list the snapshots of a layout",
     "OWN: bytes that only this snapshot leads to, which go when all its tags go;\n"
     "? where there are none, or where a manifest that is damaged may lead there, too.",
     run_ls},
    {"inspect", "DIR REF", "0", 2, 2, "--json", "identity, regions, maps, layers, contract, features",
     "Memory is not verified, nothing is run: any CPU will do.", run_inspect},
    {"verify", "DIR REF", "0", 2, 2, "--json --all --any-cpu --threads",
     "check every byte that a load would use; prints ok",
     "Prints ok, or the error's name. --all DIR: a line for each snapshot, and the\nworst one's exit status.", run_verify},
    {"start", "PROGRAM [ARG...]", "", 1, MANY,
     "--json --save --files --env --map --until-input --input --runtime --cpu --heap --stack --timeout --wait",
     "make a snapshot of a static Linux program",
     "Options stand before PROGRAM, or behind --save, which may end the ARGs. What\n"
     "it writes meanwhile goes to stderr. Prints the digest. run DIR TAG goes on.",
     run_start},
    {"run", "DIR REF [FUNC ARG...]", "0", 2, HLSNAP_MAX_ARGS + 3, "--json --raw --map --timeout --threads",
     "start the snapshot in a VM, call a function",
     "Options stand before DIR. ARG is read as FUNC's signature says: true or false,\n"
     "numbers, also 0x.., text, bytes as hex or @FILE. The guest's log goes to stderr.\n"
     "Functions that it needs of its host are there, but fail. Without FUNC: a\n"
     "program that start made goes on, with this input, output and exit status.",
     run_run},
    {"diff", "DIR REF [DIR2] REF2", "02", 3, 4, "--json --all --verify --threads",
     "regions and pages that differ; exit 1 if any do",
     "Compares memory, regions, maps, entry, contract, features. A: REF, B: REF2.", run_diff},
    {"map", "DIR REF", "0", 2, 2, "--json -o", "draw the memory as SVG", "Memory is not verified, nothing is run: any CPU will do.",
     run_map},
    {"tag", "DIR REF TAG", "0", 3, 3, "--json --wait", "give a snapshot a tag, or another one", NULL, run_tag},
    {"rm", "DIR TAG...", "0", 2, MANY, "--json --wait", "take tags away; gc frees the space",
     "TAG may be a glob, such as 'v1.*', or a digest: then all tags of it go.", run_rm},
    {"prune", "DIR", "", 1, 1, "--json --keep-last --older-than --match --dry-run --gc --grace --wait",
     "take tags away by age and number, oldest first",
     "Tags that --match go, but for those that --keep-last keeps, and where\n--older-than is given only those that are.",
     run_prune},
    {"du", "DIR", "", 1, 1, "--json", "what snapshots share, and have of their own", NULL, run_du},
    {"gc", "DIR", "", 1, 1, "--json --grace --wait", "remove what no tag leads to", NULL, run_gc},
    {"fsck", "DIR", "", 1, 1, "--json --json-lines --repair --threads --wait", "check all entries and hash all blobs",
     "Prints a line for each problem, then ok or how many there are. Without\n--repair nothing is written.", run_fsck},
    {"flatten", "DIR REF TAG", "0", 3, 3, "--json --any-cpu --threads --wait", "write a snapshot again, as one layer",
     "Prints the new digest. TAG may be REF.", run_flatten},
    {"copy", "DIR REF DIR2 [TAG]", "02!", 3, 4, "--json --max-bytes --wait", "copy a snapshot to another layout, with its digest",
     "DIR2 is made when it is missing. Without TAG: REF, where that is a tag.", run_copy},
    {"export", "DIR REF FILE", "0", 3, 3, "--json --max-bytes", "write a snapshot as an oci-archive (tar)",
     "FILE may be -. The same snapshot and tag make the same bytes.", run_export},
    {"import", "FILE DIR [TAG]", "1!", 2, 3, "--json --ref --max-bytes --wait", "take a snapshot in from an oci-archive (tar)",
     "FILE may be -. It is not compressed. Without TAG: one that it has.", run_import},
    {"unresolved", "FILE", "", 1, 1, "--json", "list what an ELF file would miss as a guest",
     "A shared object, a program or a guest: functions and variables that it expects\n"
     "of others and that the guest runtime has not. Nothing is run.",
     run_unresolved},
    {"completion", "bash", "", 1, 2, "", "print a script by which bash completes",
     "In ~/.bashrc: . <(hlsnap_tool completion bash)\ncompletion tags DIR: prints the tags of a layout.", run_completion},
};
static const size_t num_commands = HLSNAP_COUNT(commands);

/* ---- completion ---- */

/* What of the script does not come from the tables. Tags come from the tool, which names none but those that bash takes for words:
   it would run what stands in others. Colons and equals signs part words for bash, but not for us. */
static const char completion_start[] =
    "# bash completion for hlsnap_tool: . <(hlsnap_tool completion bash)\n"
    "_hlsnap_tool_tags() { [[ -d $1 ]] && \"$tool\" completion tags \"$1\" 2>/dev/null; }\n"
    "_hlsnap_tool_words() { mapfile -t COMPREPLY < <(compgen -W \"$1\" -- \"$cur\"); }\n"
    "_hlsnap_tool_dirs() {\n"
    "    local dir=${cur%:*}\n"
    "    if [[ $cur == *:* && -d $dir ]]; then\n"
    "        mapfile -t COMPREPLY < <(compgen -P \"$dir:\" -W \"$(_hlsnap_tool_tags \"$dir\")\" -- \"${cur##*:}\")\n"
    "    else\n"
    "        mapfile -t COMPREPLY < <(compgen -d -- \"$cur\") && compopt -o filenames 2>/dev/null\n"
    "    fi\n"
    "}\n"
    "_hlsnap_tool() {\n"
    "    local line=${COMP_LINE:0:COMP_POINT} words cur tool options='' args='' dir='' cut='' n=0 i more\n"
    "    read -ra words <<<\"$line\"\n"
    "    [[ $line == *[[:space:]] ]] && words+=('')\n"
    "    tool=${words[0]} cur=${words[-1]} COMPREPLY=()\n";

static const char completion_end[] =
    "    for ((i = 2; i < ${#words[@]} - 1; i++)); do\n"
    "        if [[ \" $values \" == *\" ${words[i]} \"* ]]; then ((i++))\n"
    "        elif [[ ${words[i]} == -* ]]; then :\n"
    "        elif [[ ! -d ${words[i]} && ${words[i]} == *:* && -d ${words[i]%%:*} ]]; then dir=${words[i]%%:*} && ((n += 2))\n"
    "        else [[ $dir && ! -d ${words[i]} ]] || dir=${words[i]}; ((n++)); fi\n"
    "    done\n"
    "    read -ra args <<<\"$args\"\n"
    "    more=${args[-1]}\n"
    "    ((n < ${#args[@]})) && more=${args[n]}\n"
    "    if [[ \" $values \" == *\" ${words[-2]} \"* ]]; then\n"
    "        case ${words[-2]} in\n"
    "        --sort) _hlsnap_tool_words 'name size own created' ;;\n"
    "        --save) _hlsnap_tool_dirs ;;\n"
    "        -o | --files | --input | --runtime)\n"
    "            mapfile -t COMPREPLY < <(compgen -f -- \"$cur\") && compopt -o filenames 2>/dev/null ;;\n"
    "        --map)\n"
    "            [[ $cur != *=* ]] || mapfile -t COMPREPLY < <(compgen -f -P \"${cur%%=*}=\" -- \"${cur#*=}\") &&\n"
    "                compopt -o filenames 2>/dev/null ;;\n"
    "        esac\n"
    "    elif [[ $cur == -* ]]; then _hlsnap_tool_words \"$options --help\"\n"
    "    elif [[ $more == DIR2 && $n == 2 && ${words[1]} == diff ]]; then\n"
    "        _hlsnap_tool_dirs\n"
    "        [[ $cur == *[:/]* ]] ||\n"
    "            mapfile -t -O ${#COMPREPLY[@]} COMPREPLY < <(compgen -W \"$(_hlsnap_tool_tags \"$dir\")\" -- \"$cur\")\n"
    "    elif [[ $more == DIR* ]]; then _hlsnap_tool_dirs\n"
    "    elif [[ $more == REF* || $more == TAG* ]]; then _hlsnap_tool_words \"$(_hlsnap_tool_tags \"$dir\")\"\n"
    "    elif [[ $more == bash ]]; then _hlsnap_tool_words 'bash tags'\n"
    "    elif [[ $more == PROGRAM ]]; then mapfile -t COMPREPLY < <(compgen -c -f -- \"$cur\")\n"
    "    elif [[ $more == FILE ]]; then mapfile -t COMPREPLY < <(compgen -f -- \"$cur\") && compopt -o filenames 2>/dev/null\n"
    "    fi\n"
    "    [[ $cur == *=* && $COMP_WORDBREAKS == *=* ]] && cut=${cur%\"${cur##*=}\"}\n"
    "    [[ ${cur#\"$cut\"} == *:* && $COMP_WORDBREAKS == *:* ]] && cut=${cur%\"${cur##*:}\"}\n"
    "    COMPREPLY=(\"${COMPREPLY[@]#\"$cut\"}\")\n"
    "}\n"
    "complete -F _hlsnap_tool hlsnap_tool\n";

static void completion_rows(void) {
    const char *c;
    size_t i;
    printf("    local values='");
    for (i = 0; i < HLSNAP_COUNT(option_rows); i++)
        if (option_rows[i].value) printf(" %s", option_rows[i].name);
    printf("'\n    if ((${#words[@]} == 2)); then\n        _hlsnap_tool_words '");
    for (i = 0; i < num_commands; i++) printf("%s ", commands[i].name);
    puts("--help --version'\n        return\n    fi\n    case ${words[1]} in");
    for (i = 0; i < num_commands; i++) {
        printf("    %s) options='%s' args='", commands[i].name, commands[i].options);
        for (c = commands[i].args; *c; c++)
            if (!strchr("[].", *c)) putchar(*c);
        puts("' ;;");
    }
    puts("    *) return ;;\n    esac");
}

static bool print_word(const char *tag, const hlsnap_oci_digest *digest, uint64_t bytes, void *user) {
    (void)digest, (void)bytes, (void)user;
    if (is_plain_tag(tag)) puts(tag);
    return !ferror(stdout);
}

static hlsnap_result run_completion(options *o, hlsnap_error *err) {
    if (o->num_args == 2 && strcmp(o->args[0], "tags") == 0)
        return in(o->args[1], hlsnap_oci_list(o->args[1], print_word, NULL, err));
    if (o->num_args != 1 || strcmp(o->args[0], "bash") != 0) return fails(err, HLSNAP_ERR_ARG, "bash, or tags DIR");
    fputs(completion_start, stdout);
    completion_rows();
    fputs(completion_end, stdout);
    return HLSNAP_OK;
}

static int help(void) {
    size_t i;
    puts("usage: hlsnap_tool COMMAND [OPTION...] ARG...    snapshots in OCI Image Layouts\n");
    for (i = 0; i < HLSNAP_COUNT(commands); i++)
        printf("  %-24s  %s\n", show("%s %s", commands[i].name, commands[i].args), commands[i].help);
    puts("\nREF is a tag, or sha256: and 8 digits or more; DIR:REF will do. COMMAND --help\n"
         "says more. Exit status: 0; 1 different; 2 usage; 75 try again; else the error's.");
    return 0;
}

static bool takes(const command *c, const char *option) {
    const size_t n = strlen(option);
    const char *at = c->options;
    for (; (at = strstr(at, option)); at += n)
        if ((at == c->options || at[-1] == ' ') && (at[n] == ' ' || !at[n])) return true;
    return false;
}

static int help_on(const command *c) {
    size_t i;
    printf("usage: hlsnap_tool %s %s%s\n\n%s%s%s\n", c->name, c->options[0] ? "[OPTION...] " : "", c->args, c->help,
           c->more ? "\n" : "", c->more ? c->more : "");
    for (i = 0; i < HLSNAP_COUNT(option_rows); i++)
        if (takes(c, option_rows[i].name))
            printf("  %-17s   %s\n", show("%s%s%s", option_rows[i].name, option_rows[i].value ? " " : "",
                                          option_rows[i].value ? option_rows[i].value : ""), option_rows[i].help);
    return 0;
}

__attribute__((format(printf, 1, 2))) static int usage(const char *fmt, ...) {
    va_list list;
    char text[300];
    va_start(list, fmt);
    vsnprintf(text, sizeof(text), fmt, list);
    va_end(list);
    fprintf(stderr, "hlsnap_tool: %s%s%s\n", current ? current->name : "", current ? ": " : "", show("%s", text));
    fprintf(stderr, "usage: hlsnap_tool %s %s%s\n", current ? current->name : "COMMAND",
            !current || current->options[0] ? "[OPTION...] " : "",
            current ? current->args : "ARG...; --help lists the commands");
    return USAGE;
}

/* A number and perhaps a unit, else the plain one. */
static bool parse_units(const char *s, bool of_time, uint64_t plain, uint64_t *n) {
    static const struct { const char *name; uint64_t n; } units[] = {
        {"ms", 1}, {"s", 1000}, {"m", 60000}, {"h", 3600000}, {"d", 86400000}, {"w", 604800000},
        {"K", 1ull << 10}, {"M", 1ull << 20}, {"G", 1ull << 30}, {"T", 1ull << 40}};
    const size_t first = of_time ? 0 : 6, end = of_time ? 6 : HLSNAP_COUNT(units), digits = strspn(s, "0123456789");
    char *number = copy_of(s, digits);
    const bool ok = parse_number(number, false, 64, n);
    size_t i;
    free(number);
    for (i = first; s[digits] && i < end && strcmp(units[i].name, s + digits) != 0; i++) {}
    if (!ok || i == end) return false;
    if (s[digits]) plain = units[i].n;
    if (*n > UINT64_MAX / plain) return false;
    *n *= plain;
    return true;
}

static bool parse_option(const struct option_row *row, const char *s, uint64_t *n) {
    const uint64_t unit = row->kind == SECONDS ? 1000 : 1;
    const bool ok = row->kind == NUMBER ? parse_number(s, false, 64, n) : parse_units(s, row->kind != BYTES, unit, n);
    return ok && *n >= row->from * unit && *n <= row->to * unit;
}

static int wrong_value(const struct option_row *row, const char *s) {
    static const char *const what[] = {"", "", "", "", "number", "number of bytes", "number of seconds", "number of milliseconds"};
    return usage("%s %.40s: not a %s from %llu to %llu%s", row->name, s, what[row->kind], llu(row->from), llu(row->to),
                 row->kind == NUMBER ? "" : row->kind == BYTES ? ", nor with a unit: K M G T" : ", nor with a unit: ms s m h d w");
}

/* DIR TAG, or DIR:TAG in one word, of a DIR that may be new. */
static int set_save(options *o, char **argv, int *i) {
    const char *colon = colon_of(argv[*i], true);
    o->words_over = o->num_args > 0;
    o->save_dir = colon ? copy_of(argv[*i], (size_t)(colon - argv[*i])) : argv[*i];
    o->save_tag = colon ? colon + 1 : argv[*i + 1];
    if (!o->save_tag) return usage("--save needs DIR TAG");
    *i += !colon;
    return 0;
}

static int add_pair(const struct option_row *row, words *to, const char *word) {
    if (strchr(word, '=') <= word) return usage("%s %.40s: not %s", row->name, word, row->value);
    to->at = (const char **)grow(to->at, (to->num + 1) * sizeof(char *));
    to->at[to->num++] = word;
    return 0;
}

/* Sets an option from argv[*i], and from the word behind it if it has a value. 0, or the exit status. */
static int set_option(options *o, char **argv, int *i) {
    const struct option_row *row = option_rows, *end = option_rows + HLSNAP_COUNT(option_rows);
    char *at = (char *)o;
    uint64_t n = 0;
    while (row < end && !(strcmp(row->name, argv[*i]) == 0 && takes(current, row->name))) row++;
    if (row == end) return usage("no option %s", argv[*i]);
    if (!row->value) {
        *(bool *)(at + row->at) = true;
        return 0;
    }
    if (!argv[*i + 1]) return usage("%s needs %s", row->name, row->value);
    ++*i;
    if (row->kind == SAVE) return set_save(o, argv, i);
    if (row->kind == PAIRS) return add_pair(row, (words *)(void *)(at + row->at), argv[*i]);
    if (row->kind == TEXT) memcpy(at + row->at, &argv[*i], sizeof(argv[*i]));
    else if (!parse_option(row, argv[*i], &n)) return wrong_value(row, argv[*i]);
    else memcpy(at + row->at, &n, sizeof(n));
    return 0;
}

/* Of run, what follows DIR is no option: -5 is an argument. Of start, what follows PROGRAM is its own, up to --save where that did
   not stand in front. */
static bool is_argument(const options *o, const char *word) {
    if (!o->num_args) return false;
    if (current->run == run_run) return true;
    return current->run == run_start && !o->words_over && (o->save_tag || strcmp(word, "--save") != 0);
}

/* 0, or the exit status. */
static int read_options(options *o, int argc, char **argv) {
    bool more = true;
    int i, fewer, status = 0;
    o->args = (const char **)grow(NULL, ((size_t)argc + 2) * sizeof(char *)); /* split_pairs makes two more */
    for (i = 2; i < argc && !status; i++) {
        if (is_argument(o, argv[i])) o->args[o->num_args++] = argv[i];
        else if (more && strcmp(argv[i], "--") == 0) more = false;
        else if (more && (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0)) o->help = true;
        else if (more && argv[i][0] == '-' && argv[i][1]) status = set_option(o, argv, &i);
        else if (o->words_over) status = usage("%.100s behind --save", argv[i]);
        else o->args[o->num_args++] = argv[i];
    }
    if (status || o->help) return status;
    split_pairs(o);
    fewer = current->run == run_verify && o->all; /* no REF, then */
    if (o->num_args > current->max_args - fewer) status = usage("too many arguments");
    if (o->num_args < current->min_args - fewer) status = usage("too few arguments");
    else if (current->run == run_start && !o->save_tag) status = usage("no --save DIR TAG");
    return status;
}

/* An index that comes near its limit is told while there is time: saves and tags would fail beyond it. */
static void warn_of_size(const options *o) {
    char path[4200];
    struct stat st;
    if (strncmp(current->args, "DIR", 3) != 0) return;
    snprintf(path, sizeof(path), "%.4096s/index.json", o->args[0]);
    if (stat(path, &st) != 0 || st.st_size < HLSNAP_OCI_INDEX_MAX / 4 * 3) return;
    fprintf(stderr, "hlsnap_tool: %s: warning: %s: index.json has %s of the %s that it may have: remove tags, then gc\n",
            current->name, show("%s", o->args[0]), human((uint64_t)st.st_size), human(HLSNAP_OCI_INDEX_MAX));
}

static int run_command(int argc, char **argv) {
    options o = {0};
    hlsnap_error err = HLSNAP_ZERO;
    hlsnap_result r;
    int status;
    o.grace_ms = 3600000;
    o.timeout_ms = 10000;
    o.older_ms = o.newer_ms = o.keep_last = NO_TIME;
    status = read_options(&o, argc, argv);
    if (status || o.help) return status ? status : help_on(current);
    r = current->run(&o, &err);
    warn_of_size(&o);
    if (!r) return o.status;
    fflush(stdout);
    print_error(r, &err);
    return status_of(r, &err);
}

/* Without them, files of the layout would get their numbers, and what is printed. */
static void open_standard_files(void) {
    int fd;
    for (fd = 0; fd < 3; fd++)
        if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", fd ? O_RDONLY : O_WRONLY) != fd)
            _exit(HLSNAP_ERR_OS); /* using one is an error */
}

int main(int argc, char **argv) {
    size_t i;
    int status = -1;
    open_standard_files();
    signal(SIGPIPE, SIG_IGN);
    for (i = 0; i < HLSNAP_COUNT(commands) && argc > 1; i++)
        if (strcmp(argv[1], commands[i].name) == 0) current = &commands[i];
    if (current) status = run_command(argc, argv);
    else if (argc < 2) status = usage("no command");
    else if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 || strcmp(argv[1], "help") == 0) status = help();
    else if (strcmp(argv[1], "--version") == 0)
        printf("hlsnap_tool %s (snapshot format %d, ABI %d)\n", HLSNAP_VERSION_STRING, HLSNAP_SNAPSHOT_VERSION,
               HLSNAP_ABI_VERSION),
            status = 0;
    else status = usage("no command %s", argv[1]);
    if ((fflush(stdout) == 0 && !ferror(stdout)) || status > USAGE) return status;
    if (errno != EPIPE) fprintf(stderr, "hlsnap_tool: standard output: %s\n", strerror(errno)); /* `| head` had enough */
    return HLSNAP_ERR_OS;
}

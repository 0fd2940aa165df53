/* test_index.c - a layout's index in other people's hands: two readers of one text, other tools' entries, signatures and what else is
   about a snapshot, ten thousand tags, an index that is lost.

   cc:  cc -I.. test_index.c -o test_index -lcjson -lcrypto
   run: ./test_index [NAME]                         makes directories named i* where it runs */
#define _GNU_SOURCE
#include <stdlib.h>
#include <unistd.h>

static void (*at_read)(int fd); /* called before each read of a file */
static ssize_t t_pread(int fd, void *to, size_t n, off_t at) {
    if (at_read) at_read(fd);
    return pread(fd, to, n, at);
}
#define pread(...) t_pread(__VA_ARGS__)

#include <cjson/cJSON.h>
/* A cJSON that was built to nest less: as long as the text is not JSON that nests deeper. */
static int nests; /* 0 = as it is built */
static cJSON *t_parse(const char *text, size_t size) {
    int depth = 0, most = 0;
    size_t i;
    for (i = 0; i < size; i++) {
        depth += text[i] == '{' || text[i] == '[' ? 1 : text[i] == '}' || text[i] == ']' ? -1 : 0;
        most = depth > most ? depth : most;
    }
    return nests && most > nests ? NULL : cJSON_ParseWithLength(text, size);
}
#define cJSON_ParseWithLength t_parse
#define HLSNAP__OCI_MAX_REACHED (1u << 17)
#define HLSNAP_IMPLEMENTATION
#include "hlsnap.h"
#include "hlsnap_kvm.h"
#include "hlsnap_oci.h"

#include "test.h"

#include "oci_make.h"

#include <openssl/evp.h>
#include <stdarg.h>
#include <sys/stat.h>
#include <sys/time.h>

#define MANIFEST_TYPE HLSNAP__OCI_MANIFEST_TYPE
#define INDEX_TYPE HLSNAP__OCI_INDEX_TYPE
#define OTHER_TYPE "application/vnd.example.thing"

static hlsnap_error err;

static const char *fresh(void) {
    static char path[16][32];
    static int n;
    char *p = path[n % 16];
    snprintf(p, 32, "i%d", n++);
    CHECK_EQ(sh("rm -rf %s", p), 0);
    return p;
}

/* ---- texts of a layout ---- */

static char *text_read(const char *dir, const char *name) {
    char path[200];
    struct stat st;
    char *text;
    FILE *f;
    snprintf(path, sizeof(path), "%s/%s", dir, name);
    f = fopen(path, "r");
    if (!f || fstat(fileno(f), &st)) return NULL;
    text = (char *)calloc(1, (size_t)st.st_size + 1);
    CHECK_EQ(fread(text, 1, (size_t)st.st_size, f), st.st_size);
    fclose(f);
    return text;
}
static void text_write(const char *dir, const char *name, const char *text, size_t size) {
    char path[300];
    FILE *f;
    snprintf(path, sizeof(path), "%s/%s", dir, name);
    f = fopen(path, "w");
    if (!CHECK(f != NULL)) return;
    CHECK_EQ(fwrite(text, 1, size, f), size);
    fclose(f);
}
/* The text with the first `from` replaced; the caller frees it. */
static char *replaced(const char *text, const char *from, const char *to) {
    const char *at = strstr(text, from);
    char *out = NULL;
    if (!CHECK(at != NULL)) return strdup(text);
    CHECK(asprintf(&out, "%.*s%s%s", (int)(at - text), text, to, at + strlen(from)) > 0);
    return out;
}
static void edit(const char *dir, const char *name, const char *from, const char *to) {
    char *text = text_read(dir, name), *now = replaced(text, from, to);
    text_write(dir, name, now, strlen(now));
    free(text), free(now);
}
static void digest_of(const char *algorithm, const void *p, size_t n, char digest[140]) {
    unsigned char sum[64];
    unsigned size, i;
    EVP_Digest(p, n, sum, &size, EVP_get_digestbyname(algorithm), NULL);
    snprintf(digest, 140, "%s:", algorithm);
    for (i = 0; i < size; i++) sprintf(digest + strlen(digest), "%02x", sum[i]);
}
static void blob_put_as(const char *dir, const char *algorithm, const void *p, size_t n, char digest[140]) {
    char name[200];
    digest_of(algorithm, p, n, digest);
    CHECK_EQ(sh("mkdir -p %s/blobs/%s", dir, algorithm), 0);
    snprintf(name, sizeof(name), "blobs/%s/%s", algorithm, digest + strlen(algorithm) + 1);
    text_write(dir, name, (const char *)p, n);
}
static void blob_put(const char *dir, const char *text, char digest[140]) { blob_put_as(dir, "sha256", text, strlen(text), digest); }

/* An entry at the end of the index; more: further members. */
static void entry_add(const char *dir, const char *type, const char *digest, size_t size, const char *tag, const char *more) {
    char *text = text_read(dir, "index.json"), *now = NULL, tagged[400] = "";
    char *end = strrchr(text, ']');
    if (tag) snprintf(tagged, sizeof(tagged), ",\"annotations\":{\"org.opencontainers.image.ref.name\":\"%s\"}", tag);
    *end = 0;
    CHECK(asprintf(&now, "%s%s{\"mediaType\":\"%s\",\"digest\":\"%s\",\"size\":%zu%s%s}]%s", text, end[-1] == '[' ? "" : ",", type, digest, size, tagged,
                   more ? more : "", end + 1) > 0);
    text_write(dir, "index.json", now, strlen(now));
    free(text), free(now);
}
/* A document and its entry. */
static void listed(const char *dir, const char *type, const char *document, const char *tag, const char *more, char digest[140]) {
    blob_put(dir, document, digest);
    entry_add(dir, type, digest, strlen(document), tag, more);
}
static bool blob_there(const char *dir, const char *digest) {
    char path[300];
    snprintf(path, sizeof(path), "%s/blobs/%.6s/%s", dir, digest, digest + 7);
    return access(path, F_OK) == 0;
}
static bool index_has(const char *dir, const char *what) {
    char *text = text_read(dir, "index.json");
    const bool has = text && strstr(text, what);
    free(text);
    return has;
}

static hlsnap_result save(const char *dir, const char *tag, hlsnap_snapshot *s, char digest[72]) {
    hlsnap_oci_desc desc = HLSNAP_ZERO;
    hlsnap_oci_digest d;
    hlsnap_result r;
    desc.created = -1;
    r = hlsnap_oci_save(dir, tag, s, &desc, &d, &err);
    if (!r && digest) memcpy(digest, d.text, sizeof(d.text));
    return r;
}
static hlsnap_result loads(const char *dir, const char *ref) {
    hlsnap_snapshot *s = NULL;
    const hlsnap_result r = hlsnap_oci_load(dir, ref, NULL, &s, NULL, &err);
    CHECK((s != NULL) == (r == HLSNAP_OK));
    hlsnap_snapshot_release(s);
    return r;
}
static hlsnap_result gc(const char *dir) {
    const hlsnap_result r = hlsnap_oci_gc(dir, 0, NULL, &err);
    if (r) printf("# gc: %s\n", err.msg);
    return r;
}
static const char *manifest_name(const char *digest) {
    static char name[100];
    snprintf(name, sizeof(name), "blobs/sha256/%.64s", digest + 7);
    return name;
}
/* The snapshot's manifest with a piece of it replaced, listed under a tag instead. */
static void manifest_edit(const char *dir, const char *digest, const char *from, const char *to) {
    char *old = text_read(dir, manifest_name(digest)), *now = replaced(old, from, to), d[140];
    hlsnap_oci_untag(dir, "v1", &err);
    listed(dir, MANIFEST_TYPE, now, "v1", NULL, d);
    free(old), free(now);
}

/* ---- one text, two readers ---- */

static void two_meanings(void) {
    static const struct { const char *where, *from, *to; hlsnap_result want; } rows[] = {
        {"index.json", "\"size\"", "\"Size\":1,\"size\"", HLSNAP_ERR_INDEX}, {"index.json", "\"size\"", "\"\xc5\xbfize\":1,\"size\"", HLSNAP_ERR_INDEX},
        {"index.json", "\"size\"", "\"SIZE\":1,\"size\"", HLSNAP_ERR_INDEX}, {"index.json", "\"size\"", "\"\\u017fize\":1,\"size\"", HLSNAP_ERR_INDEX},
        {"index.json", "\"size\"", "\"s\\u0049ze\":1,\"size\"", HLSNAP_ERR_INDEX}, {"index.json", "\"size\"", "\"siz\xc3\xa9\":1,\"size\"", HLSNAP_OK},
        {"index.json", "\"digest\"", "\"Digest\":\"x\",\"digest\"", HLSNAP_ERR_INDEX}, {"index.json", "\"digest\"", "\"dige\xc5\xbft\":\"x\",\"digest\"", HLSNAP_ERR_INDEX},
        {"index.json", "\"manifests\"", "\"Manifests\":[],\"manifests\"", HLSNAP_ERR_INDEX}, {"index.json", "\"manifests\"", "\"manife\xc5\xbft\xc5\xbf\":[],\"manifests\"", HLSNAP_ERR_INDEX},
        {"index.json", "\"schemaVersion\"", "\"schemaversion\":1,\"schemaVersion\"", HLSNAP_ERR_INDEX},
        {"index.json", "\"mediaType\"", "\"mediatype\":\"x\",\"mediaType\"", HLSNAP_ERR_INDEX}, {"index.json", "\"size\"", "\"Annotations\":{},\"size\"", HLSNAP_ERR_INDEX},
        {"index.json", "\"size\"", "\"ArtifactType\":\"x\",\"size\"", HLSNAP_ERR_INDEX}, {"index.json", "\"size\"", "\"Platform\":{},\"size\"", HLSNAP_ERR_INDEX},
        {"index.json", "\"size\"", "\"URLs\":[],\"size\"", HLSNAP_ERR_INDEX}, {"index.json", "\"size\"", "\"Data\":\"\",\"size\"", HLSNAP_ERR_INDEX},
        {"index.json", "\"schemaVersion\"", "\"\\u0053\\u0063\\u0068\\u0065\\u006d\\u0061\\u0056\\u0065\\u0072\\u0073\\u0069\\u006f\\u004e\":1,\"schemaVersion\"", HLSNAP_ERR_INDEX},
        {"manifest", "\"layers\"", "\"subject\":{\"Digest\":\"x\"},\"layers\"", HLSNAP_ERR_MANIFEST},
        {"index.json", "\"annotations\":{", "\"annotations\":{\"Size\":\"1\",\"DIGEST\":\"x\",", HLSNAP_OK}, /* a map of strings: nobody folds these */
        {"index.json", "\"size\"", "\"x\":{\"Size\":1},\"size\"", HLSNAP_OK}, {"index.json", "\"size\"", "\"sizes\":1,\"siz\":1,\"size\"", HLSNAP_OK},
        {"oci-layout", "{", "{\"imagelayoutversion\":\"2.0.0\",", HLSNAP_ERR_LAYOUT}, {"oci-layout", "{", "{\"imageLayoutVer\xc5\xbfion\":\"2.0.0\",", HLSNAP_ERR_LAYOUT},
        {"manifest", "\"config\"", "\"Config\":{},\"config\"", HLSNAP_ERR_MANIFEST}, {"manifest", "\"layers\"", "\"layer\xc5\xbf\":[],\"layers\"", HLSNAP_ERR_MANIFEST},
        {"manifest", "\"layers\"", "\"Subject\":{},\"layers\"", HLSNAP_ERR_MANIFEST}, {"manifest", "\"layers\":[{", "\"layers\":[{\"Size\":1,", HLSNAP_ERR_MANIFEST},
        {"manifest", "\"config\":{", "\"config\":{\"DIGEST\":\"x\",", HLSNAP_ERR_MANIFEST}, {"manifest", "\"annotations\":{\"dev", "\"annotations\":{\"Size\":\"1\",\"dev", HLSNAP_OK}};
    hlsnap_snapshot *s = snapshot_small(1);
    size_t i;
    for (i = 0; i < HLSNAP_COUNT(rows); i++) {
        const char *dir = fresh();
        char digest[72];
        CHECK_EQ(save(dir, "v1", s, digest), 0);
        if (strcmp(rows[i].where, "manifest") == 0) manifest_edit(dir, digest, rows[i].from, rows[i].to);
        else edit(dir, rows[i].where, rows[i].from, rows[i].to);
        if (!CHECK_EQ(loads(dir, "v1"), rows[i].want)) printf("# %s: %s: %s\n", rows[i].where, rows[i].to, err.msg);
        if (rows[i].want) CHECK(strstr(err.msg, "other readers take this for '") != NULL);
        if (rows[i].want && strcmp(rows[i].where, "manifest") != 0) CHECK_EQ(hlsnap_oci_tag(dir, "v1", "v2", &err), rows[i].want);
        sh("rm -rf %s", dir);
    }
    hlsnap_snapshot_release(s);
}

/* What serializers of other tools write, in the index and in entries that are none of ours. */
static void others_may_write(void) {
    static const struct { const char *what, *from, *to; hlsnap_result want; const char *says; } rows[] = {
        {"entry's annotations null", MANIFEST_TYPE "\"", MANIFEST_TYPE "\",\"platform\":null,\"urls\":null", HLSNAP_OK, NULL},
        {"index's annotations null", "{\"schemaVersion\"", "{\"annotations\":null,\"schemaVersion\"", HLSNAP_OK, NULL},
        {"index's mediaType null", "\"mediaType\":\"" INDEX_TYPE "\"", "\"mediaType\":null", HLSNAP_OK, NULL},
        {"a fraction", "{\"schemaVersion\"", "{\"x\":0.5,\"y\":[1e3,-0,1E-2,9007199254740993],\"schemaVersion\"", HLSNAP_OK, NULL},
        {"an entry that is all null", "\"manifests\":[", "\"manifests\":[{\"mediaType\":null,\"digest\":\"sha512:ab\",\"size\":0,\"annotations\":null,\"artifactType\":null},", HLSNAP_OK, NULL},
        {"an entry without mediaType", "\"manifests\":[", "\"manifests\":[{\"digest\":\"sha512:ab\",\"size\":3},", HLSNAP_OK, NULL},
        {"no number", "{\"schemaVersion\"", "{\"x\":1.e3,\"schemaVersion\"", HLSNAP_ERR_JSON, "not a number"},
        {"a size with a fraction", "\"manifests\":[", "\"manifests\":[{\"digest\":\"sha512:ab\",\"size\":3.0},", HLSNAP_ERR_JSON, "not a plain integer"},
        {"annotations true", "\"manifests\":[", "\"manifests\":[{\"digest\":\"sha512:ab\",\"size\":3,\"annotations\":true},", HLSNAP_ERR_INDEX, "manifests[0].annotations: expected an object, found true"},
        {"an annotation null", "\"manifests\":[", "\"manifests\":[{\"digest\":\"sha512:ab\",\"size\":3,\"annotations\":{\"a\":null}},", HLSNAP_OK, NULL},
        {"a tag null", "\"manifests\":[", "\"manifests\":[{\"digest\":\"sha512:ab\",\"size\":3,\"annotations\":{\"org.opencontainers.image.ref.name\":null}},", HLSNAP_OK, NULL},
        {"an annotation 1", "\"manifests\":[", "\"manifests\":[{\"digest\":\"sha512:ab\",\"size\":3,\"annotations\":{\"a\":1}},", HLSNAP_ERR_INDEX, "expected strings only, found 1"},
        {"no digest", "\"manifests\":[", "\"manifests\":[{\"size\":3},", HLSNAP_ERR_INDEX, "manifests[0].digest: expected sha256:"},
        {"no size", "\"manifests\":[", "\"manifests\":[{\"digest\":\"sha512:ab\"},", HLSNAP_ERR_INDEX, "manifests[0].size: expected an integer"},
        {"no object", "\"manifests\":[", "\"manifests\":[[],", HLSNAP_ERR_INDEX, "manifests[0].: expected a descriptor, found an array"},
        {"17 levels", "{\"schemaVersion\"", "{\"x\":[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]],\"schemaVersion\"", HLSNAP_ERR_JSON, "nested too deep"}};
    hlsnap_snapshot *s = snapshot_small(1);
    size_t i;
    for (i = 0; i < HLSNAP_COUNT(rows); i++) {
        const char *dir = fresh();
        CHECK_EQ(save(dir, "v1", s, NULL), 0);
        edit(dir, "index.json", rows[i].from, rows[i].to);
        if (!CHECK_EQ(loads(dir, "v1"), rows[i].want) || (rows[i].says && !CHECK(strstr(err.msg, rows[i].says) != NULL)))
            printf("# %s: %s\n", rows[i].what, err.msg);
        CHECK_EQ(hlsnap_oci_tag(dir, "v1", "v2", &err), rows[i].want);
        if (!rows[i].want) CHECK(index_has(dir, rows[i].to + 1)); /* it stays as it was written */
        sh("rm -rf %s", dir);
    }
    hlsnap_snapshot_release(s);
}

/* ---- names ---- */

static bool count(const char *tag, const hlsnap_oci_digest *digest, uint64_t bytes, void *user) {
    (void)tag, (void)digest, (void)bytes;
    ++*(int *)user;
    return true;
}

/* Tags are written by the registries' grammar; what other tools call an entry finds it, and can be taken away, too. */
static char long_name[301];
static void names_of_other_tools(void) {
    static const char *const names[] = {"myapp:v1", "reg.example/team/app:v1", "a@b", "x+y", "A/b_c--d", "host:5000/n@sha256:" "0123",
                                        /* and what no grammar has: oras writes it all the same */
                                        "a b", "\xc3\xbcn\xc3\xaf", ".x", "-x", "+a", "%41", "..", "*", "a//b", long_name};
    const char *dir = fresh();
    hlsnap_snapshot *s = snapshot_small(1);
    char digest[72];
    size_t i;
    int n = 0;
    memset(long_name, 'n', sizeof(long_name) - 1);
    CHECK_EQ(save(dir, "v1", s, digest), 0);
    for (i = 0; i < HLSNAP_COUNT(names); i++) {
        char *m = text_read(dir, manifest_name(digest));
        entry_add(dir, MANIFEST_TYPE, digest, strlen(m), names[i], NULL);
        free(m);
        CHECK_EQ(loads(dir, names[i]), HLSNAP_OK);
        CHECK_EQ(save(dir, names[i], s, NULL), HLSNAP_ERR_ARG);
        CHECK_EQ(hlsnap_oci_tag(dir, names[i], "again", &err), HLSNAP_OK);
        CHECK_EQ(hlsnap_oci_tag(dir, "again", names[i], &err), HLSNAP_ERR_ARG);
        CHECK_EQ(hlsnap_oci_untag(dir, names[i], &err), HLSNAP_OK);
        CHECK_EQ(loads(dir, names[i]), HLSNAP_ERR_NOT_FOUND);
        CHECK(strstr(err.msg, "v1") == NULL || strstr(names[i], "v1") != NULL); /* what else is there is not told */
    }
    CHECK_EQ(hlsnap_oci_untag(dir, "../x", &err), HLSNAP_ERR_NOT_FOUND);
    CHECK_EQ(hlsnap_oci_untag(dir, "", &err), HLSNAP_ERR_ARG);
    CHECK_EQ(hlsnap_oci_untag(dir, "sha256:12", &err), HLSNAP_ERR_ARG);
    /* a digest: all its tags */
    CHECK_EQ(hlsnap_oci_tag(dir, digest, "v2", &err), HLSNAP_OK);
    CHECK_EQ(hlsnap_oci_untag(dir, digest, &err), HLSNAP_OK);
    CHECK_EQ(hlsnap_oci_untag(dir, digest, &err), HLSNAP_ERR_NOT_FOUND);
    CHECK(strstr(err.msg, "has no tag") != NULL);
    CHECK_EQ(loads(dir, "v1"), HLSNAP_ERR_NOT_FOUND);
    CHECK_EQ(loads(dir, "v2"), HLSNAP_ERR_NOT_FOUND);
    CHECK_EQ(loads(dir, digest), HLSNAP_OK);
    CHECK_EQ(gc(dir), 0);
    CHECK_EQ(hlsnap_oci_list(dir, count, &n, &err), 0);
    CHECK_EQ(n, 0);
    hlsnap_snapshot_release(s);
}

#define EMPTY "{\"mediaType\":\"application/vnd.oci.empty.v1+json\",\"digest\":\"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a\",\"size\":2}"
#define OTHER "{\"schemaVersion\":2,\"mediaType\":\"" MANIFEST_TYPE "\",\"artifactType\":\"" OTHER_TYPE "\",\"config\":" EMPTY ",\"layers\":[" EMPTY "]%s}"

/* The tag of something else is not taken away, whatever cannot be read of it. */
/* A tag that looks like the digest of another snapshot: a digest means what has it, and a tag that was listed is that tag. */
static void tag_like_a_digest(void) {
    const char *dir = fresh(), *one;
    hlsnap_snapshot *s = snapshot_small(1), *t = snapshot_small(2);
    char old[72], new[72], *m;
    hlsnap_oci_digest got;
    hlsnap_snapshot *back;
    int way;
    for (way = 0; way < 4; way++) {
        CHECK_EQ(save(dir, "old", s, old), 0);
        CHECK_EQ(save(dir, "new", t, new), 0);
        m = text_read(dir, manifest_name(old));
        if (way % 2) { /* `oras tag dir:old sha256:...`, wherever its entry stands */
            char first[500];
            snprintf(first, sizeof(first), "\"manifests\":[{\"mediaType\":\"" MANIFEST_TYPE "\",\"digest\":\"%s\",\"size\":%zu,\"annotations\":{\"org.opencontainers.image.ref.name\":\"%s\"}},", old, strlen(m), new);
            edit(dir, "index.json", "\"manifests\":[", first);
            one = new;
        } else
            entry_add(dir, MANIFEST_TYPE, old, strlen(m), one = new, NULL);
        free(m);
        CHECK_EQ(hlsnap_oci_load(dir, new, NULL, &back, &got, &err), HLSNAP_OK);
        CHECK_STR(got.text, new);
        hlsnap_snapshot_release(back);
        if (way == 0) CHECK_EQ(hlsnap_oci_untag_listed(dir, &one, 1, NULL, &err), HLSNAP_OK); /* that tag */
        if (way == 1) CHECK_EQ(hlsnap_oci_untag(dir, new, &err), HLSNAP_OK);                  /* tags of new */
        if (way == 2) CHECK_EQ(hlsnap_oci_untag_all(dir, &one, 1, NULL, &err), HLSNAP_OK);
        if (way == 3) CHECK_EQ(hlsnap_oci_untag(dir, old, &err), HLSNAP_OK); /* both tags of old */
        CHECK_EQ(loads(dir, "old"), way == 3 ? HLSNAP_ERR_NOT_FOUND : HLSNAP_OK);
        CHECK_EQ(loads(dir, "new"), way == 1 || way == 2 ? HLSNAP_ERR_NOT_FOUND : HLSNAP_OK);
        CHECK_EQ(hlsnap_oci_untag_listed(dir, &one, 1, NULL, &err), way == 1 || way == 2 ? HLSNAP_OK : HLSNAP_ERR_NOT_FOUND);
        if (way == 0 || way == 3) CHECK(strstr(err.msg, "no tag 'sha256:") != NULL);
        CHECK_EQ(gc(dir), 0);
        CHECK_EQ(loads(dir, old), way == 3 ? HLSNAP_ERR_NOT_FOUND : HLSNAP_OK);
        CHECK_EQ(loads(dir, new), way == 1 || way == 2 ? HLSNAP_ERR_NOT_FOUND : HLSNAP_OK);
    }
    one = old; /* a digest is no tag */
    CHECK_EQ(hlsnap_oci_untag_listed(dir, &one, 1, NULL, &err), HLSNAP_ERR_NOT_FOUND);
    one = "";
    CHECK_EQ(hlsnap_oci_untag_listed(dir, &one, 1, NULL, &err), HLSNAP_ERR_NOT_FOUND);
    one = NULL;
    CHECK_EQ(hlsnap_oci_untag_listed(dir, &one, 1, NULL, &err), HLSNAP_ERR_ARG);
    hlsnap_snapshot_release(s);
    hlsnap_snapshot_release(t);
}

static void untags_no_others(void) {
    const char *dir = fresh();
    hlsnap_snapshot *s = snapshot_small(1);
    char *big = (char *)malloc(1200000), document[600], d[140];
    size_t n;
    CHECK_EQ(save(dir, "v1", s, NULL), 0);
    snprintf(document, sizeof(document), OTHER, "");
    listed(dir, MANIFEST_TYPE, document, "plain", ",\"artifactType\":\"" OTHER_TYPE "\"", d);
    snprintf(document, sizeof(document), OTHER, ",\"x\":0.5");
    listed(dir, MANIFEST_TYPE, document, "float", NULL, d);
    snprintf(document, sizeof(document), OTHER, ",\"x\":[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]");
    listed(dir, MANIFEST_TYPE, document, "deep", NULL, d);
    n = (size_t)sprintf(big, "{\"schemaVersion\":2,\"a\":\"%01100000d\"}", 1);
    listed(dir, MANIFEST_TYPE, big, "big", NULL, d);
    blob_put_as(dir, "sha512", document, strlen(document), d);
    entry_add(dir, MANIFEST_TYPE, d, strlen(document), "sha512", NULL);
    entry_add(dir, MANIFEST_TYPE, "sha256:00000000000000000000000000000000000000000000000000000000000000aa", 700, "gone", ",\"artifactType\":\"" OTHER_TYPE "\"");
    listed(dir, MANIFEST_TYPE, "{\"schemaVersion\": 1}", "v2s1", NULL, d);
    listed(dir, OTHER_TYPE, "anything", "blob", NULL, d);
    {
        static const char *const tags[] = {"plain", "float", "deep", "big", "sha512", "gone", "v2s1", "blob"};
        size_t i;
        for (i = 0; i < HLSNAP_COUNT(tags); i++) {
            if (!CHECK_EQ(hlsnap_oci_untag(dir, tags[i], &err), HLSNAP_ERR_MEDIA_TYPE)) printf("# %s: %s\n", tags[i], err.msg);
            CHECK(index_has(dir, tags[i]));
        }
    }
    /* one that was a snapshot's, or says nothing of what it was, and is gone */
    entry_add(dir, MANIFEST_TYPE, "sha256:00000000000000000000000000000000000000000000000000000000000000bb", 700, "ours", ",\"artifactType\":\"" HLSNAP__OCI_ARTIFACT_TYPE "\"");
    entry_add(dir, MANIFEST_TYPE, "sha256:00000000000000000000000000000000000000000000000000000000000000cc", 700, "unknown", NULL);
    CHECK_EQ(hlsnap_oci_untag(dir, "ours", &err), HLSNAP_OK);
    CHECK_EQ(hlsnap_oci_untag(dir, "unknown", &err), HLSNAP_OK);
    CHECK(n > 1 << 20);
    free(big);
    hlsnap_snapshot_release(s);
}

/* ---- what others have in a layout: none of it hinders gc, or hides what is shared ---- */

static bool own_of(const char *tag, hlsnap_result r, const hlsnap_oci_info *info, void *user) {
    hlsnap_oci_info *out = (hlsnap_oci_info *)user;
    CHECK_EQ(r, HLSNAP_OK);
    if (strcmp(tag, "v1") == 0) *out = *info;
    return true;
}

typedef struct other_document { const char *what, *type, *begin, *end; size_t fill; } other_document;
static const other_document documents[] = {
    {"a manifest of 3 MiB", MANIFEST_TYPE, "{\"schemaVersion\":2,\"a\":\"", "\",\"layers\":[{\"digest\":\"%s\"}]}", 3 << 20},
    {"one of 9 MiB", MANIFEST_TYPE, "{\"schemaVersion\":2,\"a\":\"", "\",\"layers\":[{\"digest\":\"%s\"}]}", 9 << 20},
    {"an SBOM of 5 MiB", "application/spdx+json", "{\"x\":\"", "\",\"of\":\"%s\"}", 5 << 20},
    {"an SBOM that ends at a piece's edge", "application/spdx+json", "{\"x\":\"", "\",\"of\":\"%s\"}", (1 << 20) - 50},
    {"a fraction", MANIFEST_TYPE, "{\"x\":0.5,\"y\":\"", "\",\"layers\":[{\"digest\":\"%s\"}]}", 1},
    {"beyond 2^53", MANIFEST_TYPE, "{\"x\":9007199254740993,\"y\":\"", "\",\"layers\":[{\"digest\":\"%s\"}]}", 1},
    {"deep", MANIFEST_TYPE, "[[[[[[[[[[[[[[[[[[[[[[[[{\"y\":\"", "\",\"d\":\"%s\"}]]]]]]]]]]]]]]]]]]]]]]]]", 1},
    {"a name twice", MANIFEST_TYPE, "{\"y\":\"", "\",\"a\":\"%s\",\"a\":1}", 1},
    {"no JSON", "text/plain", "y: ", " %s", 1},
    {"lines of JSON", "application/jsonl", "{\"y\":\"", "\"}\n{\"d\":\"%s\"}\n", 1},
    {"a byte order mark", "application/json", "\xef\xbb\xbf{\"y\":\"", "\",\"d\":\"%s\"}", 1},
    {"in a longer word", "application/json", "{\"y\":\"", "\",\"d\":\"name@%s\"}", 1}};

static void collects_around_anything(void) {
    size_t i;
    for (i = 0; i < HLSNAP_COUNT(documents) + 3; i++) {
        const other_document *doc = &documents[i < HLSNAP_COUNT(documents) ? i : 4];
        const char *dir = fresh();
        hlsnap_snapshot *s = snapshot_small(1);
        char kept[140], lost[140], d[140], escaped[500], *text = (char *)malloc(doc->fill + 1000);
        hlsnap_oci_info info;
        uint64_t freed = 0;
        CHECK_EQ(save(dir, "v1", s, NULL), 0);
        blob_put(dir, "a blob that only a document names", kept);
        blob_put(dir, "a blob that nothing names", lost);
        strcpy(text, doc->begin);
        memset(text + strlen(doc->begin), 'y', doc->fill);
        text[strlen(doc->begin) + doc->fill] = 0;
        snprintf(escaped, sizeof(escaped), "%s", kept);
        if (i == HLSNAP_COUNT(documents)) snprintf(escaped, sizeof(escaped), "\\u0073ha25\\u0036\\u003A%.10s\\u00%02x%s", kept + 7, kept[17], kept + 18);
        sprintf(text + strlen(text), doc->end, escaped);
        if (i == HLSNAP_COUNT(documents) + 1) { /* named by sha512, and so is what names it */
            char inner[140], outer[400];
            blob_put_as(dir, "sha512", text, strlen(text), inner);
            snprintf(outer, sizeof(outer), "{\"manifests\":[{\"digest\":\"%s\"}]}", inner);
            blob_put_as(dir, "sha512", outer, strlen(outer), d);
            entry_add(dir, INDEX_TYPE, d, strlen(outer), "other", NULL);
        } else if (i == HLSNAP_COUNT(documents) + 2) { /* nine indexes around it */
            char outer[400];
            int k;
            blob_put(dir, text, d);
            for (k = 0; k < 9; k++) {
                snprintf(outer, sizeof(outer), "{\"schemaVersion\":2,\"manifests\":[{\"mediaType\":\"" INDEX_TYPE "\",\"digest\":\"%s\",\"size\":1}]}", d);
                blob_put(dir, outer, d);
            }
            entry_add(dir, INDEX_TYPE, d, strlen(outer), "other", NULL);
        } else
            listed(dir, doc->type, text, "other", NULL, d);
        memset(&info, 0, sizeof(info));
        CHECK_EQ(hlsnap_oci_list_info(dir, own_of, &info, &err), 0);
        CHECK(info.own_bytes > 0);
        CHECK_EQ(info.pinned, false);
        if (!CHECK_EQ(hlsnap_oci_gc(dir, 0, &freed, &err), HLSNAP_OK) || !CHECK(blob_there(dir, kept)) || !CHECK(!blob_there(dir, lost)))
            printf("# %s (%zu): %s\n", doc->what, i, err.msg);
        CHECK_EQ(freed, strlen("a blob that nothing names"));
        CHECK_EQ(hlsnap_oci_fsck(dir, false, &err), HLSNAP_OK);
        CHECK_EQ(loads(dir, "v1"), 0);
        CHECK_EQ(sh("rm -rf %s", dir), 0);
        free(text);
        hlsnap_snapshot_release(s);
    }
}

/* What cannot be read may lead anywhere: nothing goes. */
static void collects_nothing_around_damage(void) {
    static const char *const ways[] = {"truncate -s 0", "truncate -s -1", "sed -i s/./x/", "head -c 300 /dev/zero | dd status=none conv=notrunc of="};
    size_t i;
    for (i = 0; i < HLSNAP_COUNT(ways); i++) {
        const char *dir = fresh();
        hlsnap_snapshot *s = snapshot_small(1);
        char kept[140], d[140], document[400];
        CHECK_EQ(save(dir, "v1", s, NULL), 0);
        blob_put(dir, "named by what is damaged", kept);
        snprintf(document, sizeof(document), "{\"schemaVersion\":2,\"layers\":[{\"digest\":\"%s\"}]}", kept);
        listed(dir, MANIFEST_TYPE, document, "other", NULL, d);
        CHECK_EQ(sh("%s%s%s/%s", ways[i], ways[i][strlen(ways[i]) - 1] == '=' ? "" : " ", dir, manifest_name(d)), 0);
        CHECK_EQ(hlsnap_oci_gc(dir, 0, NULL, &err), HLSNAP_ERR_DIGEST);
        CHECK(strstr(err.msg, "what it leads to is not known") != NULL);
        CHECK(blob_there(dir, kept));
        hlsnap_snapshot_release(s);
    }
}

/* The same of every kind of document, and where something else stands in its place; and of what only a document names. */
static void collects_nothing_around_damaged_kinds(void) {
    static const char *const types[] = {MANIFEST_TYPE, INDEX_TYPE, "application/vnd.docker.distribution.manifest.v2+json",
                                        "application/vnd.docker.distribution.manifest.list.v2+json", NULL};
    size_t i;
    int way;
    for (i = 0; i < HLSNAP_COUNT(types); i++)
        for (way = 0; way < 4; way++) { /* another beginning; zeros; a link; gone */
            const char *dir = fresh();
            hlsnap_snapshot *s = snapshot_small(1);
            char kept[140], d[140], outer[140], document[400];
            const hlsnap_result want = way < 2 ? HLSNAP_ERR_DIGEST : HLSNAP_ERR_FILE;
            if (!types[i] && way != 1) { /* by its beginning it is none; a link or nothing leads nowhere */
                hlsnap_snapshot_release(s);
                continue;
            }
            CHECK_EQ(save(dir, "v1", s, NULL), 0);
            blob_put(dir, "named by what is damaged", kept);
            snprintf(document, sizeof(document), "{\"schemaVersion\":2,\"layers\":[{\"digest\":\"%s\"}]}", kept);
            if (types[i]) listed(dir, types[i], document, "other", NULL, d);
            else {
                blob_put(dir, document, d);
                snprintf(document, sizeof(document), "{\"schemaVersion\":2,\"manifests\":[{\"digest\":\"%s\"}]}", d);
                listed(dir, INDEX_TYPE, document, "other", NULL, outer);
            }
            if (way == 0) CHECK_EQ(sh("sed -i s/./x/ %s/%s", dir, manifest_name(d)), 0);
            if (way == 1) CHECK_EQ(sh("head -c 300 /dev/zero | dd status=none conv=notrunc of=%s/%s", dir, manifest_name(d)), 0);
            if (way == 2) CHECK_EQ(sh("mv %s/%s %s/x && ln -s ../../x %s/%s", dir, manifest_name(d), dir, dir, manifest_name(d)), 0);
            if (way == 3) CHECK_EQ(sh("rm %s/%s", dir, manifest_name(d)), 0);
            if (!CHECK_EQ(hlsnap_oci_gc(dir, 0, NULL, &err), want)) printf("# %s, %d\n", types[i] ? types[i] : "inner", way);
            CHECK(blob_there(dir, kept));
            hlsnap_snapshot_release(s);
        }
}

/* What a document of whatever beginning names, when nothing but a document names that one. */
static void collects_around_inner_documents(void) {
    static const char *const begins[] = {"{", "[", "\xef\xbb\xbf{", " \t\r\n[", "                                                                      {"};
    size_t i;
    for (i = 0; i < HLSNAP_COUNT(begins); i++) {
        const char *dir = fresh();
        char kept[140], d[140], outer[140], document[400];
        hlsnap_snapshot *s = snapshot_small(1);
        CHECK_EQ(save(dir, "v1", s, NULL), 0);
        blob_put(dir, "named by an inner document", kept);
        snprintf(document, sizeof(document), "%s\"%s\"", begins[i], kept);
        blob_put(dir, document, d);
        snprintf(document, sizeof(document), "{\"schemaVersion\":2,\"manifests\":[{\"digest\":\"%s\"}]}", d);
        listed(dir, INDEX_TYPE, document, "other", NULL, outer);
        CHECK_EQ(gc(dir), 0);
        if (!CHECK(blob_there(dir, d) && blob_there(dir, kept))) printf("# '%s'\n", begins[i]);
        hlsnap_snapshot_release(s);
    }
}

/* ---- signatures, SBOMs, attestations ---- */

typedef struct held { char text[800]; } held;
static bool note_holder(const hlsnap_oci_holder *h, void *user) {
    held *out = (held *)user;
    static const char *const kinds[] = {"tag", "by", "about"};
    snprintf(out->text + strlen(out->text), sizeof(out->text) - strlen(out->text), "%s %s;", kinds[h->kind], h->ref_name[0] ? h->ref_name : "-");
    return true;
}
static void holders(const char *dir, const char *ref, const char *want) {
    held got = {""};
    if (!CHECK_EQ(hlsnap_oci_holders(dir, ref, note_holder, &got, &err), HLSNAP_OK)) printf("# %s\n", err.msg);
    CHECK_STR(got.text, want);
}
static void referrer(const char *dir, const char *subject, int salt, const char *tag, char digest[140], char payload[140]) {
    char text[200], document[900];
    snprintf(text, sizeof(text), "{\"critical\":{\"image\":{\"docker-manifest-digest\":\"%s\"}},\"salt\":%d}", subject, salt);
    blob_put(dir, text, payload);
    snprintf(document, sizeof(document), "{\"schemaVersion\":2,\"mediaType\":\"" MANIFEST_TYPE "\",\"artifactType\":\"" OTHER_TYPE "\",\"config\":" EMPTY
             ",\"layers\":[{\"mediaType\":\"%s\",\"digest\":\"%s\",\"size\":%zu}]%s%s%s}",
             tag ? "application/vnd.dev.cosign.simplesigning.v1+json" : "application/json", /* one thing says so, not two */
             payload, strlen(text), tag ? "" : ",\"subject\":{\"mediaType\":\"" MANIFEST_TYPE "\",\"size\":1,\"digest\":\"", tag ? "" : subject, tag ? "" : "\"}");
    listed(dir, MANIFEST_TYPE, document, tag, NULL, digest);
}

/* It stays as long as what it is about, and goes with it, in one collection; it does not keep it. */
static void goes_with_its_subject(void) {
    int way;
    for (way = 0; way < 5; way++) { /* subject; cosign's .sig, .att, .sbom; a registry's fallback tag */
        static const char *const suffix[] = {NULL, ".sig", ".att", ".sbom", ""};
        const char *dir = fresh();
        hlsnap_snapshot *s = snapshot_small(1), *o = snapshot_small(9);
        char digest[72], tag[100], d[140], payload[140], d2[140], payload2[140], want[200];
        hlsnap_oci_info info, before;
        CHECK_EQ(save(dir, "v1", s, digest), 0);
        CHECK_EQ(save(dir, "v2", o, NULL), 0);
        CHECK_EQ(hlsnap_oci_get_info(dir, "v1", &before, &err), 0);
        snprintf(tag, sizeof(tag), "sha256-%s%s", digest + 7, way ? suffix[way] : "");
        referrer(dir, digest, way, way ? tag : NULL, d, payload);
        referrer(dir, d, 7, NULL, d2, payload2); /* about the signature */
        CHECK_EQ(hlsnap_oci_get_info(dir, "v1", &info, &err), 0);
        CHECK_EQ(info.referrers, 1);
        CHECK_EQ(info.pinned, false);
        CHECK_EQ(info.own_bytes, before.own_bytes);
        snprintf(want, sizeof(want), "tag v1;about %s;", way ? tag : "-");
        holders(dir, "v1", want);
        CHECK_EQ(gc(dir), 0);
        CHECK(blob_there(dir, d) && blob_there(dir, payload) && blob_there(dir, d2) && blob_there(dir, payload2) && loads(dir, "v1") == HLSNAP_OK);
        CHECK_EQ(hlsnap_oci_untag(dir, "v1", &err), 0);
        CHECK_EQ(hlsnap_oci_gc(dir, 3600, NULL, &err), 0); /* all of them are young */
        CHECK(blob_there(dir, digest) && blob_there(dir, d) && blob_there(dir, payload2));
        CHECK_EQ(gc(dir), 0);
        CHECK(!blob_there(dir, digest) && !blob_there(dir, d) && !blob_there(dir, payload) && !blob_there(dir, d2) && !blob_there(dir, payload2));
        CHECK(!index_has(dir, d) && !index_has(dir, d2) && !index_has(dir, digest + 7));
        CHECK_EQ(hlsnap_oci_fsck(dir, false, &err), 0);
        CHECK_EQ(loads(dir, "v2"), 0);
        hlsnap_snapshot_release(s);
        hlsnap_snapshot_release(o);
    }
}

/* A snapshot that says it is about another one goes with that, and does not keep it. */
static void snapshot_about_a_snapshot(void) {
    const char *dir = fresh();
    hlsnap_snapshot *s = snapshot_small(1), *o = snapshot_small(2);
    char digest[72], other[72], d[140], text[300], *m, *now;
    CHECK_EQ(save(dir, "v1", s, digest), 0);
    CHECK_EQ(save(dir, "v2", o, other), 0);
    m = text_read(dir, manifest_name(other));
    snprintf(text, sizeof(text), "\"subject\":{\"mediaType\":\"" MANIFEST_TYPE "\",\"size\":1,\"digest\":\"%s\"},\"layers\"", digest);
    now = replaced(m, "\"layers\"", text);
    listed(dir, MANIFEST_TYPE, now, NULL, ",\"artifactType\":\"" HLSNAP__OCI_ARTIFACT_TYPE "\"", d);
    CHECK_EQ(hlsnap_oci_untag(dir, "v2", &err), 0);
    holders(dir, "v1", "tag v1;about -;");
    CHECK_EQ(gc(dir), 0);
    CHECK_EQ(loads(dir, d), 0);
    CHECK(!blob_there(dir, other));
    CHECK_EQ(hlsnap_oci_untag(dir, "v1", &err), 0);
    CHECK_EQ(gc(dir), 0);
    CHECK(!blob_there(dir, digest) && !blob_there(dir, d));
    free(m), free(now);
    hlsnap_snapshot_release(s);
    hlsnap_snapshot_release(o);
}

/* cosign save leaves no tag that says so: the payload does. */
static void signature_by_its_payload(void) {
    const char *dir = fresh();
    hlsnap_snapshot *s = snapshot_small(1);
    char digest[72], d[140], p[140], *m, *now, sig[140];
    CHECK_EQ(save(dir, "v1", s, digest), 0);
    referrer(dir, digest, 1, "sha256-x", d, p); /* a tag of no such form */
    m = text_read(dir, manifest_name(d));
    now = replaced(m, OTHER_TYPE, "a/b");
    CHECK_EQ(save(dir, "v1", s, NULL), 0);
    edit(dir, "index.json", ",\"annotations\":{\"org.opencontainers.image.ref.name\":\"sha256-x\"}", "");
    listed(dir, MANIFEST_TYPE, now, NULL, ",\"annotations\":{\"kind\":\"dev.cosignproject.cosign/sigs\"}", sig);
    holders(dir, "v1", "tag v1;about -;about -;");
    CHECK_EQ(gc(dir), 0);
    CHECK(blob_there(dir, sig) && blob_there(dir, p));
    CHECK_EQ(hlsnap_oci_untag(dir, "v1", &err), 0);
    CHECK_EQ(gc(dir), 0);
    CHECK(!blob_there(dir, digest) && !blob_there(dir, sig) && !blob_there(dir, d) && !blob_there(dir, p));
    free(m), free(now);
    hlsnap_snapshot_release(s);
}

/* One that is listed twice, as a registry's fallback tag does beside the plain entry, is one. */
static void one_referrer_two_entries(void) {
    const char *dir = fresh();
    hlsnap_snapshot *s = snapshot_small(1);
    char digest[72], d[140], p[140], tag[100], *m;
    hlsnap_oci_info info;
    CHECK_EQ(save(dir, "v1", s, digest), 0);
    referrer(dir, digest, 1, NULL, d, p);
    m = text_read(dir, manifest_name(d));
    snprintf(tag, sizeof(tag), "sha256-%s.sig", digest + 7);
    entry_add(dir, MANIFEST_TYPE, d, strlen(m), tag, NULL);
    CHECK_EQ(hlsnap_oci_get_info(dir, "v1", &info, &err), 0);
    CHECK_EQ(info.referrers, 1);
    CHECK_EQ(gc(dir), 0);
    CHECK_EQ(hlsnap_oci_untag(dir, "v1", &err), 0);
    CHECK_EQ(gc(dir), 0);
    CHECK(!blob_there(dir, digest) && !blob_there(dir, d) && !index_has(dir, d));
    free(m);
    hlsnap_snapshot_release(s);
}

/* A young one keeps what it is about for that time; one that a user tagged stays alone; one of a stranger stays. */
static void referrers_of_all_sorts(void) {
    const char *dir = fresh();
    hlsnap_snapshot *s = snapshot_small(1);
    struct timeval old[2] = {{1000000000, 0}, {1000000000, 0}};
    char digest[72], d[140], p[140], named[140], named_p[140], stranger[140], stranger_p[140], name[200];
    CHECK_EQ(save(dir, "v1", s, digest), 0);
    referrer(dir, digest, 1, NULL, d, p);
    referrer(dir, digest, 2, NULL, named, named_p);
    referrer(dir, "sha256:00000000000000000000000000000000000000000000000000000000000000dd", 3, NULL, stranger, stranger_p);
    edit(dir, "index.json", named, named);
    {
        char from[300], to[400];
        snprintf(from, sizeof(from), "\"digest\":\"%s\"", named);
        snprintf(to, sizeof(to), "\"digest\":\"%s\",\"annotations\":{\"org.opencontainers.image.ref.name\":\"mine\"}", named);
        edit(dir, "index.json", from, to);
    }
    CHECK_EQ(hlsnap_oci_untag(dir, "v1", &err), 0);
    snprintf(name, sizeof(name), "%s/%s", dir, manifest_name(digest));
    CHECK_EQ(utimes(name, old), 0);
    CHECK_EQ(hlsnap_oci_gc(dir, 0, NULL, &err), 0);
    CHECK(!blob_there(dir, digest) && !blob_there(dir, d) && !blob_there(dir, p));
    CHECK(blob_there(dir, named) && blob_there(dir, named_p) && index_has(dir, "mine"));
    CHECK(blob_there(dir, stranger) && blob_there(dir, stranger_p) && index_has(dir, stranger));
    CHECK_EQ(hlsnap_oci_fsck(dir, false, &err), 0);
    hlsnap_snapshot_release(s);
}

/* ---- nothing that says it is about something makes anything else go ---- */

static void piece_of(const char *dir, const char *digest, const char *kind, char out[72]) { /* "memory.v1" or "config.v1+json" */
    char *m = text_read(dir, manifest_name(digest)), *at = strstr(m, kind);
    snprintf(out, 72, "%.71s", at ? at + strlen(kind) + 12 : "");
    CHECK(hlsnap__sha256_text_ok(out));
    free(m);
}
static void about(const char *dir, const char *subject, const char *layer, int salt, const char *tag, char d[140]) {
    char text[900];
    snprintf(text, sizeof(text), "{\"schemaVersion\":2,\"mediaType\":\"" MANIFEST_TYPE "\",\"config\":" EMPTY ",\"layers\":[{\"mediaType\":\"a/b\",\"digest\":\"%s\",\"size\":%d}],"
             "\"subject\":{\"mediaType\":\"" MANIFEST_TYPE "\",\"size\":1,\"digest\":\"%s\"}}", layer, salt + 1, subject);
    listed(dir, MANIFEST_TYPE, text, tag, NULL, d);
}

/* A tag of cosign's form on a snapshot of ours: it is a tag, whatever it names. */
static void tags_of_that_form(void) {
    const char *dir = fresh(), *to = fresh();
    hlsnap_snapshot *s = snapshot_small(1), *o = snapshot_small(2);
    char digest[72], other[72], own[90], warm[100], back[90];
    CHECK_EQ(save(dir, "v1", s, digest), 0);
    CHECK_EQ(save(dir, "v2", o, other), 0);
    snprintf(own, sizeof(own), "sha256-%s", digest + 7);
    CHECK_EQ(hlsnap_oci_copy(dir, "v1", to, own, NULL, NULL, &err), 0); /* its own digest */
    CHECK_EQ(gc(to), 0);
    CHECK_EQ(loads(to, own), 0);
    snprintf(warm, sizeof(warm), "%s.warm", own); /* another's */
    CHECK_EQ(hlsnap_oci_tag(dir, "v2", warm, &err), 0);
    snprintf(back, sizeof(back), "sha256-%s.x", other + 7); /* and that one's */
    CHECK_EQ(hlsnap_oci_tag(dir, "v1", back, &err), 0);
    CHECK_EQ(hlsnap_oci_untag(dir, "v1", &err), 0);
    CHECK_EQ(hlsnap_oci_untag(dir, "v2", &err), 0);
    CHECK_EQ(gc(dir), 0);
    CHECK_EQ(loads(dir, warm), 0);
    CHECK_EQ(hlsnap_oci_untag(dir, back, &err), 0);
    CHECK_EQ(gc(dir), 0);
    CHECK_EQ(loads(dir, warm), 0);
    CHECK(!blob_there(dir, digest));
    hlsnap_snapshot_release(s);
    hlsnap_snapshot_release(o);
}

/* What only begins so is a tag of a user's, and stays whatever goes. */
static void tags_nearly_of_that_form(void) {
    static const char *const forms[] = {"sha256-%.64sx", "sha256-%.64s-sig", "sha256-%.63s", "Sha256-%.64s", "sha256_%.64s"};
    const char *dir = fresh();
    hlsnap_snapshot *s = snapshot_small(1);
    char digest[72], d[HLSNAP_COUNT(forms)][140], tag[100], text[600], more[40];
    size_t i;
    CHECK_EQ(save(dir, "v1", s, digest), 0);
    for (i = 0; i < HLSNAP_COUNT(forms); i++) {
        snprintf(tag, sizeof(tag), forms[i], digest + 7);
        snprintf(more, sizeof(more), ",\"x\":%zu", i);
        snprintf(text, sizeof(text), OTHER, more);
        listed(dir, MANIFEST_TYPE, text, tag, NULL, d[i]);
    }
    holders(dir, "v1", "tag v1;");
    CHECK_EQ(hlsnap_oci_untag(dir, "v1", &err), 0);
    CHECK_EQ(gc(dir), 0);
    CHECK(!blob_there(dir, digest));
    for (i = 0; i < HLSNAP_COUNT(forms); i++) CHECK(blob_there(dir, d[i]) && index_has(dir, d[i]));
    hlsnap_snapshot_release(s);
}

/* A signature's signature that stands before it in the index stays as long as that does: here an index of a user's keeps them all. */
static void listed_before_its_subject(void) {
    const char *dir = fresh(), *scratch = fresh(), *empty = "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";
    hlsnap_snapshot *s = snapshot_small(1);
    char digest[72], first[140], again[140], d[140], third[140], pin[140], text[400];
    CHECK_EQ(save(scratch, "v1", s, NULL), 0);
    CHECK_EQ(save(dir, "v1", s, digest), 0);
    about(scratch, digest, empty, 1, NULL, first);
    about(scratch, first, empty, 2, NULL, d);
    about(dir, d, empty, 3, NULL, third);
    about(dir, first, empty, 2, NULL, d);
    about(dir, digest, empty, 1, NULL, again);
    CHECK_STR(again, first);
    snprintf(text, sizeof(text), "{\"schemaVersion\":2,\"manifests\":[{\"mediaType\":\"" MANIFEST_TYPE "\",\"digest\":\"%s\",\"size\":1}]}", digest);
    listed(dir, INDEX_TYPE, text, "pin", NULL, pin);
    CHECK_EQ(hlsnap_oci_untag(dir, "v1", &err), 0);
    CHECK_EQ(gc(dir), 0);
    CHECK(blob_there(dir, digest) && blob_there(dir, first) && blob_there(dir, d) && blob_there(dir, third) && index_has(dir, third));
    edit(dir, "index.json", ",\"annotations\":{\"org.opencontainers.image.ref.name\":\"pin\"}", "");
    edit(dir, "index.json", pin, "sha256:00000000000000000000000000000000000000000000000000000000000000ff");
    CHECK_EQ(gc(dir), 0);
    CHECK(!blob_there(dir, digest) && !blob_there(dir, first) && !blob_there(dir, d) && !blob_there(dir, third));
    hlsnap_snapshot_release(s);
}

/* Entries that come first and are about a part of it, or call its manifest their config. */
static void claims_hide_nothing(void) {
    int way;
    for (way = 0; way < 5; way++) {
        const char *dir = fresh(), *other = fresh();
        hlsnap_snapshot *s = snapshot_small(1), *o = snapshot_small(2);
        char digest[72], part[72], d[140], x[140], text[900];
        int i;
        CHECK_EQ(save(other, "v1", s, digest), 0);
        CHECK_EQ(save(dir, "base", o, NULL), 0);
        piece_of(other, digest, way % 2 ? "config.v1+json" : "memory.v1", part);
        if (way < 4)
            for (i = 0; i < 3; i++) about(dir, part, digest, i, way / 2 ? i == 0 ? "p0" : i == 1 ? "p1" : "p2" : NULL, d);
        else /* two that mention an index of it, and are about it; then one that leads there over that index */
            for (i = 0; i < 2; i++) {
                snprintf(text, sizeof(text), "{\"schemaVersion\":2,\"manifests\":[{\"mediaType\":\"" MANIFEST_TYPE "\",\"digest\":\"%s\",\"size\":1}]}", digest);
                blob_put(dir, text, x);
                about(dir, digest, x, i, i ? "sbom" : "att", d);
            }
        CHECK_EQ(hlsnap_oci_copy(other, "v1", dir, "v1", NULL, NULL, &err), 0);
        if (way == 4) {
            snprintf(text, sizeof(text), "{\"schemaVersion\":2,\"manifests\":[{\"mediaType\":\"" INDEX_TYPE "\",\"digest\":\"%s\",\"size\":1}]}", x);
            listed(dir, INDEX_TYPE, text, "release", NULL, d);
            CHECK_EQ(hlsnap_oci_untag(dir, "v1", &err), 0);
        }
        CHECK_EQ(gc(dir), 0);
        CHECK_EQ(loads(dir, digest), 0);
        CHECK_EQ(loads(dir, "base"), 0);
        hlsnap_snapshot_release(s);
        hlsnap_snapshot_release(o);
    }
}

/* What is no referrer: about a blob that no entry lists, about its own layer, about each other, about two. */
static void claims_of_other_sorts(void) {
    const char *dir = fresh();
    hlsnap_snapshot *s = snapshot_small(1), *o = snapshot_small(2);
    char digest[72], second[72], part[72], unlisted[140], a[140], b[140], d[140], p[2][140], text[900], tag[90], *m, *now;
    int i;
    CHECK_EQ(save(dir, "v1", s, digest), 0);
    CHECK_EQ(save(dir, "v2", o, second), 0);
    piece_of(dir, digest, "memory.v1", part);
    m = text_read(dir, manifest_name(digest));
    snprintf(text, sizeof(text), "\"subject\":{\"mediaType\":\"" MANIFEST_TYPE "\",\"size\":1,\"digest\":\"%s\"},\"layers\"", part);
    now = replaced(m, "\"layers\"", text);
    listed(dir, MANIFEST_TYPE, now, "own_layer", NULL, d);
    blob_put(dir, "what no entry lists", unlisted);
    about(dir, unlisted, "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a", 1, "mine", d);
    snprintf(text, sizeof(text), OTHER, "");
    blob_put(dir, text, a);
    about(dir, a, "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a", 2, NULL, b);
    snprintf(tag, sizeof(tag), "sha256-%.64s.sig", b + 7);
    entry_add(dir, MANIFEST_TYPE, a, strlen(text), tag, NULL); /* a circle */
    for (i = 0; i < 2; i++) {
        snprintf(text, sizeof(text), "{\"critical\":{\"image\":{\"docker-manifest-digest\":\"%s\"}}}", i ? second : digest);
        blob_put(dir, text, p[i]);
    }
    snprintf(text, sizeof(text), "{\"schemaVersion\":2,\"config\":" EMPTY ",\"layers\":[{\"mediaType\":\"application/vnd.dev.cosign.simplesigning.v1+json\",\"size\":1,\"digest\":\"%s\"},{\"digest\":\"%s\"}]}",
             p[0], p[1]);
    listed(dir, MANIFEST_TYPE, text, NULL, NULL, d);
    CHECK_EQ(hlsnap_oci_untag(dir, "v1", &err), 0);
    CHECK_EQ(gc(dir), 0);
    CHECK_EQ(loads(dir, "own_layer"), 0);
    CHECK(blob_there(dir, unlisted) && blob_there(dir, a) && blob_there(dir, b) && blob_there(dir, d) && blob_there(dir, p[1]));
    free(m), free(now);
    hlsnap_snapshot_release(s);
    hlsnap_snapshot_release(o);
}

/* Levels of what others write elsewhere in it do not hide what it is about. */
static void subject_beside_deep_nesting(void) {
    const char *dir = fresh();
    hlsnap_snapshot *s = snapshot_small(1);
    char digest[72], d[140], text[900], in[101], out[101];
    CHECK_EQ(save(dir, "v1", s, digest), 0);
    memset(in, '[', 100), memset(out, ']', 100), in[100] = out[100] = 0;
    snprintf(text, sizeof(text), "{\"schemaVersion\":2,\"x\":%s0.5%s,\"subject\":{\"mediaType\":\"" MANIFEST_TYPE "\",\"size\":1,\"digest\":\"%s\"}}", in, out, digest);
    listed(dir, MANIFEST_TYPE, text, NULL, NULL, d);
    holders(dir, "v1", "tag v1;about -;");
    CHECK_EQ(gc(dir), 0);
    CHECK(blob_there(dir, d));
    CHECK_EQ(hlsnap_oci_untag(dir, "v1", &err), 0);
    CHECK_EQ(gc(dir), 0);
    CHECK(!blob_there(dir, digest) && !blob_there(dir, d));
    hlsnap_snapshot_release(s);
}

/* A signature that is younger than the grace period keeps what it is about, however old that is. */
static void young_signature(void) {
    const char *dir = fresh();
    hlsnap_snapshot *s = snapshot_small(1);
    char digest[72], d[140];
    CHECK_EQ(save(dir, "v1", s, digest), 0);
    CHECK_EQ(hlsnap_oci_untag(dir, "v1", &err), 0);
    usleep(2100000); /* the time of a change cannot be set */
    about(dir, digest, "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a", 1, NULL, d);
    CHECK_EQ(hlsnap_oci_gc(dir, 1, NULL, &err), 0);
    CHECK(blob_there(dir, d) && blob_there(dir, digest));
    CHECK_EQ(loads(dir, digest), 0);
    CHECK_EQ(gc(dir), 0);
    CHECK(!blob_there(dir, d) && !blob_there(dir, digest));
    hlsnap_snapshot_release(s);
}

/* Signatures of two manifests in one document, or more than are looked at: it goes with none of them, and so keeps them. */
static void signs_several(void) {
    static const char row[] = "%s{\"mediaType\":\"application/vnd.dev.cosign.simplesigning.v1+json\",\"size\":%zu,\"digest\":\"%s\"}";
    int way;
    for (way = 0; way < 4; way++) { /* one; 64 of one; 65 of one; two */
        static const int num[] = {1, 64, 65, 2};
        const char *dir = fresh();
        hlsnap_snapshot *s = snapshot_small(1), *o = snapshot_small(2);
        char digest[2][72], d[140], p[140], payload[200], *text = (char *)malloc(20000), *at = text;
        int i;
        CHECK_EQ(save(dir, "v1", s, digest[0]), 0);
        CHECK_EQ(save(dir, "v2", o, digest[1]), 0);
        at += sprintf(at, "{\"schemaVersion\":2,\"config\":" EMPTY ",\"layers\":[");
        for (i = 0; i < num[way]; i++) {
            snprintf(payload, sizeof(payload), "{\"critical\":{\"image\":{\"docker-manifest-digest\":\"%.71s\"}},\"salt\":%d}", digest[way == 3 ? i : 0], i);
            blob_put(dir, payload, p);
            at += sprintf(at, row, i ? "," : "", strlen(payload), p);
        }
        strcpy(at, "]}");
        listed(dir, MANIFEST_TYPE, text, NULL, NULL, d);
        holders(dir, "v1", way < 2 ? "tag v1;about -;" : "tag v1;by -;");
        CHECK_EQ(hlsnap_oci_untag(dir, "v1", &err), 0);
        CHECK_EQ(hlsnap_oci_untag(dir, "v2", &err), 0);
        CHECK_EQ(gc(dir), 0);
        CHECK_EQ(blob_there(dir, d), way >= 2);
        CHECK_EQ(blob_there(dir, digest[0]), way >= 2);
        CHECK_EQ(blob_there(dir, digest[1]), way == 3);
        free(text);
        hlsnap_snapshot_release(s);
        hlsnap_snapshot_release(o);
    }
}

/* What is about a snapshot and names its blobs, as an SBOM of its layers does, takes nothing from what is the snapshot's own. */
static void own_beside_referrers(void) {
    const char *dir = fresh();
    hlsnap_snapshot *s = snapshot_small(1);
    char digest[72], part[72], d[140];
    hlsnap_oci_info before, info;
    CHECK_EQ(save(dir, "v1", s, digest), 0);
    CHECK_EQ(hlsnap_oci_get_info(dir, "v1", &before, &err), 0);
    piece_of(dir, digest, "memory.v1", part);
    about(dir, digest, part, 1, NULL, d);
    CHECK_EQ(hlsnap_oci_get_info(dir, "v1", &info, &err), 0);
    CHECK_EQ(info.own_bytes, before.own_bytes);
    CHECK(info.referrers == 1 && !info.pinned);
    hlsnap_snapshot_release(s);
}

/* An entry without a tag, of which nothing says what it is, and that cannot be read: it may be anybody's. */
static void untagged_and_damaged(void) {
    const char *dir = fresh();
    hlsnap_snapshot *s = snapshot_small(1);
    char kept[140], d[140], document[400];
    CHECK_EQ(save(dir, "v1", s, NULL), 0);
    blob_put(dir, "named by what is damaged", kept);
    snprintf(document, sizeof(document), "{\"schemaVersion\":2,\"layers\":[{\"digest\":\"%s\"}]}", kept);
    listed(dir, MANIFEST_TYPE, document, NULL, NULL, d);
    CHECK_EQ(sh("sed -i s/./x/ %s/%s", dir, manifest_name(d)), 0);
    CHECK_EQ(hlsnap_oci_gc(dir, 0, NULL, &err), HLSNAP_ERR_DIGEST);
    CHECK(blob_there(dir, kept) && blob_there(dir, d) && index_has(dir, d));
    hlsnap_snapshot_release(s);
}

/* What the index names outside its entries, and text that only looks like an escape. */
static void named_elsewhere(void) {
    const char *dir = fresh();
    hlsnap_snapshot *s = snapshot_small(1);
    char top[140], tex[140], d[140], text[400];
    CHECK_EQ(save(dir, "v1", s, NULL), 0);
    blob_put(dir, "named by the index's own annotations", top);
    blob_put(dir, "named behind a backslash and u", tex);
    snprintf(text, sizeof(text), "{\"annotations\":{\"x\":\"%s\"},\"schemaVersion\"", top);
    edit(dir, "index.json", "{\"schemaVersion\"", text);
    snprintf(text, sizeof(text), "\\textbf{\\u%s}", tex);
    listed(dir, "text/plain", text, "tex", NULL, d);
    CHECK_EQ(gc(dir), 0);
    CHECK(blob_there(dir, top) && blob_there(dir, tex));
    hlsnap_snapshot_release(s);
}

/* A chunk list that is missing is found, whoever else leads to the snapshot. */
static void missing_behind_others(void) {
    const char *dir = fresh();
    hlsnap_snapshot *s = snapshot_small(1);
    char digest[72], chunks[72], d[140];
    int i;
    CHECK_EQ(save(dir, "v1", s, digest), 0);
    piece_of(dir, digest, "chunks.v1", chunks);
    CHECK_EQ(hlsnap_oci_untag(dir, "v1", &err), 0);
    for (i = 0; i < 2; i++) about(dir, "sha256:00000000000000000000000000000000000000000000000000000000000000ee", digest, i, NULL, d);
    CHECK_EQ(hlsnap_oci_tag(dir, digest, "v1", &err), 0);
    CHECK_EQ(sh("rm %s/%s", dir, manifest_name(chunks)), 0);
    CHECK_EQ(loads(dir, "v1"), HLSNAP_ERR_FILE);
    CHECK_EQ(hlsnap_oci_fsck(dir, false, &err), HLSNAP_ERR_FILE);
    hlsnap_snapshot_release(s);
}

/* An index of the user's that lists a snapshot keeps it, and its entry. */
static void pinned_by_an_index(void) {
    const char *dir = fresh();
    hlsnap_snapshot *s = snapshot_small(1);
    char digest[72], d[140], sig[140], payload[140], document[400];
    hlsnap_oci_info info;
    CHECK_EQ(save(dir, "v1", s, digest), 0);
    referrer(dir, digest, 1, NULL, sig, payload);
    snprintf(document, sizeof(document), "{\"schemaVersion\":2,\"manifests\":[{\"mediaType\":\"" MANIFEST_TYPE "\",\"digest\":\"%s\",\"size\":1}]}", digest);
    listed(dir, INDEX_TYPE, document, "both", NULL, d);
    CHECK_EQ(hlsnap_oci_get_info(dir, "v1", &info, &err), 0);
    CHECK_EQ(info.pinned, true);
    CHECK_EQ(info.own_bytes, 0);
    holders(dir, "v1", "tag v1;about -;by both;");
    CHECK_EQ(hlsnap_oci_untag(dir, "v1", &err), 0);
    CHECK_EQ(gc(dir), 0);
    CHECK_EQ(loads(dir, digest), 0); /* its entry stays, too */
    CHECK(blob_there(dir, sig) && blob_there(dir, payload));
    holders(dir, digest, "about -;by both;");
    hlsnap_snapshot_release(s);
}

/* ---- size ---- */

/* An index of n tags of one snapshot, and as many other entries. */
static void crowd(const char *dir, const char *digest, uint32_t n, uint32_t fill) {
    char *text = (char *)malloc((size_t)n * (400 + fill) + 1000), *at = text, *m = text_read(dir, manifest_name(digest));
    uint32_t i;
    at += sprintf(at, "{\"schemaVersion\":2,\"manifests\":[");
    for (i = 0; i < n; i++)
        at += sprintf(at, "%s{\"mediaType\":\"" MANIFEST_TYPE "\",\"digest\":\"%s\",\"size\":%zu,\"annotations\":{\"org.opencontainers.image.ref.name\":\"t%u\",\"x\":\"%0*d\"}}",
                      i ? "," : "", digest, strlen(m), i, (int)fill + 1, 0);
    at += sprintf(at, "]}");
    text_write(dir, "index.json", text, (size_t)(at - text));
    free(text), free(m);
}

/* A cJSON that was built for a small system is named as a reason, and what hlsnap writes needs little of it. */
static void nests_less(void) {
    const char *dir = fresh();
    hlsnap_snapshot *s = snapshot_small(1);
    CHECK_EQ(save(dir, "v1", s, NULL), 0);
    nests = HLSNAP__JSON_DEPTH;
    CHECK_EQ(loads(dir, "v1"), 0);
    CHECK_EQ(save(dir, "v2", s, NULL), 0);
    nests = 3;
    CHECK_EQ(loads(dir, "v1"), HLSNAP_ERR_MEMORY);
    CHECK(strstr(err.msg, "out of memory, or built with CJSON_NESTING_LIMIT below 16") != NULL);
    nests = 0;
    CHECK_EQ(loads(dir, "v1"), 0);
    hlsnap_snapshot_release(s);
}

static void many_entries(void) {
    const char *dir = fresh();
    hlsnap_snapshot *s = snapshot_small(1), *o = snapshot_small(2);
    char digest[72], other[72];
    int n = 0;
    CHECK_EQ(save(dir, "v1", s, digest), 0);
    crowd(dir, digest, 12000, 60);
    CHECK_EQ(loads(dir, "t11999"), 0);
    CHECK_EQ(loads(dir, "t12000"), HLSNAP_ERR_NOT_FOUND);
    CHECK_EQ(loads(dir, digest), 0);
    CHECK_EQ(save(dir, "v2", o, other), 0);
    CHECK_EQ(hlsnap_oci_tag(dir, "t5", "v3", &err), 0);
    CHECK_EQ(hlsnap_oci_untag(dir, "t7", &err), 0);
    CHECK_EQ(hlsnap_oci_list(dir, count, &n, &err), 0);
    CHECK_EQ(n, 12000 + 2);
    CHECK_EQ(gc(dir), 0);
    CHECK_EQ(hlsnap_oci_fsck(dir, false, &err), 0);
    CHECK_EQ(hlsnap_oci_untag(dir, digest, &err), 0); /* all of them */
    CHECK_EQ(gc(dir), 0);
    CHECK(!blob_there(dir, digest));
    CHECK_EQ(loads(dir, "v2"), 0);
    hlsnap_snapshot_release(s);
    hlsnap_snapshot_release(o);
}

/* At the wall: saves and tags stop at half of what is read, removing goes on; beyond that nothing is read. */
static void as_large_as_it_may_be(void) {
    const char *dir = fresh();
    hlsnap_snapshot *s = snapshot_small(1), *o = snapshot_small(2);
    char digest[72], path[100];
    CHECK_EQ(save(dir, "v1", s, digest), 0);
    crowd(dir, digest, 1000, 33000); /* 33.3 MB: as much as is written */
    CHECK_EQ(save(dir, "v2", o, NULL), HLSNAP_OK);
    CHECK_EQ(hlsnap_oci_tag(dir, "t1", "v3", &err), HLSNAP_OK);
    crowd(dir, digest, 1000, 34000); /* 34 MB */
    CHECK_EQ(loads(dir, "t999"), 0);
    CHECK_EQ(save(dir, "v2", o, NULL), HLSNAP_ERR_LIMIT);
    CHECK(strstr(err.msg, "index.json: 1000 entries") != NULL);
    CHECK_EQ(hlsnap_oci_tag(dir, "t1", "v3", &err), HLSNAP_ERR_LIMIT);
    CHECK_EQ(hlsnap_oci_untag(dir, "t1", &err), 0);
    CHECK_EQ(gc(dir), 0);
    CHECK_EQ(loads(dir, "t1"), HLSNAP_ERR_NOT_FOUND);
    snprintf(path, sizeof(path), "%s/index.json", dir);
    CHECK_EQ(truncate(path, (64 << 20) + 1), 0);
    CHECK_EQ(loads(dir, "t2"), HLSNAP_ERR_LIMIT);
    CHECK(strstr(err.msg, "at most 67108864 are read") != NULL);
    hlsnap_snapshot_release(s);
    hlsnap_snapshot_release(o);
}

static char counted[200];
static int readings;
static void count_reading(int fd) {
    char link[64], path[400];
    ssize_t n;
    snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
    n = readlink(link, path, sizeof(path) - 1);
    path[n < 0 ? 0 : n] = 0;
    readings += strstr(path, counted) != NULL;
}

/* Manifests that share one config: it is read once, also where it does not fit them. */
static void one_config_many_manifests(void) {
    const char *dir = fresh();
    hlsnap_snapshot *s = snapshot_small(1);
    char digest[72], d[140], *m, *at;
    int i, n = 0;
    CHECK_EQ(save(dir, "v1", s, digest), 0);
    m = text_read(dir, manifest_name(digest));
    at = strstr(m, "snapshot.config.v1+json\",\"digest\":\"sha256:");
    snprintf(counted, sizeof(counted), "%.64s", at ? at + 42 : "none");
    for (i = 0; i < 60; i++) {
        char to[100], tag[20], *now;
        snprintf(to, sizeof(to), i % 2 ? "\"x\":%d,\"layers\"" : "\"y\":%d,\"layers\"", i);
        now = replaced(m, "\"layers\"", to);
        if (i % 3 == 2) { /* of another chunk list: a manifest that its config contradicts */
            char *other = strstr(now, "snapshot.chunks.v1\",\"digest\":\"sha256:");
            CHECK(other != NULL);
            memcpy(other + 37, "0123", 4);
        }
        snprintf(tag, sizeof(tag), "m%d", i);
        listed(dir, MANIFEST_TYPE, now, tag, NULL, d);
        free(now);
    }
    readings = 0;
    at_read = count_reading;
    CHECK_EQ(hlsnap_oci_list_info(dir, (hlsnap_oci_visit_info)NULL, NULL, &err), HLSNAP_ERR_ARG);
    {
        hlsnap_oci_info info;
        memset(&info, 0, sizeof(info));
        CHECK_EQ(hlsnap_oci_get_info(dir, "m1", &info, &err), 0);
        readings = 0;
        CHECK_EQ(hlsnap_oci_list(dir, count, &n, &err), 0);
        CHECK_EQ(n, 61);
    }
    readings = 0;
    hlsnap_oci_fsck(dir, false, &err);
    at_read = NULL;
    if (!CHECK(readings >= 1 && readings <= 6)) printf("# %d\n", readings);
    free(m);
    hlsnap_snapshot_release(s);
}

/* A manifest that many entries name is read a few times, not once for each of them. */
static bool any_info(const char *tag, hlsnap_result r, const hlsnap_oci_info *info, void *user) {
    return (void)tag, (void)info, ++*(int *)user, r == HLSNAP_OK;
}
static void one_manifest_is_read_once(void) {
    const char *dir = fresh();
    hlsnap_snapshot *s = snapshot_small(1);
    char digest[72];
    int n[2] = {0, 0}, what;
    CHECK_EQ(save(dir, "v1", s, digest), 0);
    crowd(dir, digest, 300, 1);
    snprintf(counted, sizeof(counted), "%.64s", digest + 7);
    for (what = 0; what < 4; what++) {
        readings = 0;
        at_read = count_reading;
        CHECK_EQ(what == 0   ? hlsnap_oci_list(dir, count, &n[0], &err)
                 : what == 1 ? hlsnap_oci_list_info(dir, any_info, &n[1], &err)
                 : what == 2 ? hlsnap_oci_fsck(dir, false, &err)
                             : hlsnap_oci_gc(dir, 0, NULL, &err), HLSNAP_OK);
        at_read = NULL;
        if (!CHECK(readings >= 1 && readings <= 16)) printf("# %d: %d\n", what, readings);
    }
    CHECK(n[0] == 300 && n[1] == 300);
    hlsnap_snapshot_release(s);
}

/* ---- tags that go ---- */

#define OURS ",\"artifactType\":\"" HLSNAP__OCI_ARTIFACT_TYPE "\""
#define NOT_OURS ",\"artifactType\":\"" OTHER_TYPE "\""

/* An index of n entries of one tag: of as many digests; or all of one, `digest`, of a manifest of size bytes that is nobody's. */
static void one_tag(const char *dir, uint32_t n, const char *digest, size_t size) {
    char *text = (char *)malloc((size_t)n * 400 + 1000), *at = text;
    uint32_t i;
    at += sprintf(at, "{\"schemaVersion\":2,\"manifests\":[");
    for (i = 0; i < n; i++) {
        char own[72];
        snprintf(own, sizeof(own), "sha256:%064x", i + 1);
        at += sprintf(at, "%s{\"mediaType\":\"" MANIFEST_TYPE "\",\"digest\":\"%s\",\"size\":%zu%s,\"annotations\":{\"org.opencontainers.image.ref.name\":\"t\"}}",
                      i ? "," : "", digest ? digest : own, size, digest ? i % 3 == 0 ? NOT_OURS : i % 3 == 1 ? OURS : "" : OURS);
    }
    at += sprintf(at, "]}");
    text_write(dir, "index.json", text, (size_t)(at - text));
    free(text);
}
static uint32_t entries_of(const char *dir) {
    static const char type[] = "\"mediaType\":\"" MANIFEST_TYPE;
    char *text = text_read(dir, "index.json"), *at = text, *end = text ? text + strlen(text) : NULL;
    uint32_t n = 0;
    for (; at && (at = memmem(at, (size_t)(end - at), type, sizeof(type) - 1)) != NULL; at++) n++; /* ASan's strstr reads all each time */
    free(text);
    return n;
}
static double cpu_seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}
/* The least of five: what else runs here only adds. */
static double one_tag_goes(const char *dir, uint32_t n) {
    double least = 1e9;
    int i;
    for (i = 0; i < 5; i++) {
        double t;
        one_tag(dir, n, NULL, 700);
        t = cpu_seconds();
        CHECK_EQ(hlsnap_oci_untag(dir, "t", &err), HLSNAP_OK);
        t = cpu_seconds() - t;
        if (t < least) least = t;
        CHECK_EQ(entries_of(dir), n);
        CHECK(!index_has(dir, "ref.name"));
    }
    return least;
}

/* A document may name more blobs than are remembered, as a list of all that a registry ever had: what is there of them is kept. */
static void names_without_number(void) {
    enum { NAMES = HLSNAP__OCI_MAX_REACHED + 10000 };
    const char *dir = fresh();
    hlsnap_snapshot *s = snapshot_small(1);
    char kept[140], other[140], lost[140], d[140], *text = (char *)malloc(NAMES * 75 + 500), *at = text;
    uint64_t freed = 0;
    uint32_t i;
    CHECK_EQ(save(dir, "v1", s, NULL), 0);
    blob_put(dir, "a blob that only a document names", kept);
    blob_put(dir, "a blob that nothing names", lost);
    at += sprintf(at, "{\"schemaVersion\":2,\"all\":[");
    for (i = 0; i < NAMES; i++) at += sprintf(at, "\"sha256:%064x\",", i + 1);
    snprintf(other, sizeof(other), "{\"named by what is no sha256\":\"%.90s\"}", kept); /* which may lead somewhere, too */
    blob_put_as(dir, "sha512", other, strlen(other), d);
    sprintf(at, "\"%s\"]}", d);
    listed(dir, INDEX_TYPE, text, "other", NULL, d);
    if (!CHECK_EQ(hlsnap_oci_gc(dir, 0, &freed, &err), HLSNAP_OK)) printf("# %s\n", err.msg);
    CHECK_EQ(freed, strlen("a blob that nothing names"));
    CHECK(blob_there(dir, kept));
    CHECK(!blob_there(dir, lost));
    CHECK_EQ(loads(dir, "v1"), 0);
    free(text);
    hlsnap_snapshot_release(s);
}

/* Of a tag that others listed any number of times: four times as many take about four times as long, not sixteen times. What is
   read of one manifest does not depend on it at all. */
static void untags_what_is_listed_often(void) {
    const char *dir = fresh();
    hlsnap_snapshot *s = snapshot_small(1);
    char *big = (char *)malloc(1 << 20), d[140], digest[72];
    double few, many;
    CHECK_EQ(save(dir, "v1", s, digest), 0);
    few = one_tag_goes(dir, 12500);
    many = one_tag_goes(dir, 100000);
    printf("# one tag of 12,500 and of 100,000 entries: %.1f and %.1f ms\n", few * 1e3, many * 1e3);
    CHECK(many < 24 * few); /* for each entry once, 8; for each pair, 64; a cache that others use up costs 2 and more */
    memset(big, ' ', 1 << 20);
    big[sprintf(big, "{\"schemaVersion\":2,\"x\":1}")] = ' ';
    blob_put_as(dir, "sha256", big, 1 << 20, d);
    one_tag(dir, 50000, d, 1 << 20);
    snprintf(counted, sizeof(counted), "%.64s", d + 7);
    readings = 0;
    at_read = count_reading;
    CHECK_EQ(hlsnap_oci_untag(dir, "t", &err), HLSNAP_ERR_MEDIA_TYPE);
    at_read = NULL;
    if (!CHECK(readings >= 1 && readings <= 12)) printf("# %d\n", readings);
    CHECK_EQ(entries_of(dir), 50000);
    one_tag(dir, 50000, d, (1 << 20) - 1); /* of another size it is not read; each may have been ours */
    CHECK_EQ(hlsnap_oci_untag(dir, "t", &err), HLSNAP_OK);
    CHECK_EQ(entries_of(dir), 1); /* all of one digest are one */
    free(big);
    hlsnap_snapshot_release(s);
}

static void untags_all_or_none(void) {
    static const char *const given[] = {"v3", "v1", "v3", "host/app:v1", "v1"}, *const wrong[] = {"v1", "v3", "v9", "v2", "v8"};
    const char *dir = fresh(), *none = fresh(), *tags[3];
    hlsnap_snapshot *s = snapshot_small(1), *o = snapshot_small(2);
    char digest[72], other[72], d[140], document[600], *before, *after, *m;
    int n = 0, i;
    CHECK_EQ(save(dir, "v1", s, digest), 0);
    CHECK_EQ(save(dir, "v4", o, other), 0);
    for (i = 2; i < 4; i++) CHECK_EQ(hlsnap_oci_tag(dir, "v1", i == 2 ? "v2" : "v3", &err), 0);
    m = text_read(dir, manifest_name(other));
    entry_add(dir, MANIFEST_TYPE, other, strlen(m), "host/app:v1", NULL);
    snprintf(document, sizeof(document), OTHER, "");
    listed(dir, MANIFEST_TYPE, document, "theirs", NOT_OURS, d);
    before = text_read(dir, "index.json");
    CHECK_EQ(hlsnap_oci_untag_all(dir, wrong, HLSNAP_COUNT(wrong), NULL, &err), HLSNAP_ERR_NOT_FOUND);
    CHECK_STR(err.msg, "hlsnap_oci_untag_all: index.json: no tag 'v9'");
    tags[0] = "v1", tags[1] = "theirs", tags[2] = "v9";
    CHECK_EQ(hlsnap_oci_untag_all(dir, tags, 3, NULL, &err), HLSNAP_ERR_MEDIA_TYPE);
    CHECK(strstr(err.msg, "'theirs'") != NULL);
    tags[0] = NULL;
    CHECK_EQ(hlsnap_oci_untag_all(dir, tags, 3, NULL, &err), HLSNAP_ERR_ARG);
    tags[0] = "v1", tags[1] = "sha256:/x";
    CHECK_EQ(hlsnap_oci_untag_all(dir, tags, 3, NULL, &err), HLSNAP_ERR_ARG);
    CHECK(strstr(err.msg, "'sha256:/x'") != NULL);
    CHECK_EQ(hlsnap_oci_untag_all(dir, NULL, 1, NULL, &err), HLSNAP_ERR_ARG);
    CHECK_EQ(hlsnap_oci_untag_all(NULL, given, 1, NULL, &err), HLSNAP_ERR_ARG);
    CHECK_EQ(hlsnap_oci_untag_all(dir, NULL, 0, NULL, &err), HLSNAP_OK);
    CHECK_EQ(hlsnap_oci_untag_all(dir, given, 0, NULL, &err), HLSNAP_OK);
    CHECK_EQ(hlsnap_oci_untag_all(none, given, 0, NULL, &err), HLSNAP_ERR_NOT_FOUND); /* no layout there */
    CHECK_EQ(hlsnap_oci_untag_all(none, given, 2, NULL, &err), HLSNAP_ERR_NOT_FOUND);
    after = text_read(dir, "index.json");
    CHECK_STR(after, before);
    free(before), free(after), free(m);
    CHECK_EQ(hlsnap_oci_untag_all(dir, given, HLSNAP_COUNT(given), NULL, &err), HLSNAP_OK);
    CHECK(loads(dir, "v1") == HLSNAP_ERR_NOT_FOUND && loads(dir, "v3") == HLSNAP_ERR_NOT_FOUND && loads(dir, "v2") == 0);
    CHECK(loads(dir, "host/app:v1") == HLSNAP_ERR_NOT_FOUND && loads(dir, "v4") == 0 && index_has(dir, "theirs"));
    CHECK_EQ(hlsnap_oci_list(dir, count, &n, &err), 0);
    CHECK_EQ(n, 4); /* v2, v4, and one without a tag of each */
    tags[0] = other, tags[1] = "v4", tags[2] = digest; /* what is meant twice goes once */
    CHECK_EQ(hlsnap_oci_untag_all(dir, tags, 3, NULL, &err), HLSNAP_OK);
    CHECK(loads(dir, "v4") == HLSNAP_ERR_NOT_FOUND && loads(dir, "v2") == HLSNAP_ERR_NOT_FOUND && loads(dir, other) == 0);
    CHECK_EQ(hlsnap_oci_untag_all(dir, tags, 1, NULL, &err), HLSNAP_ERR_NOT_FOUND);
    CHECK(strstr(err.msg, "has no tag") != NULL);
    CHECK(gc(dir) == 0 && loads(dir, other) == HLSNAP_ERR_NOT_FOUND && blob_there(dir, d));
    hlsnap_snapshot_release(s);
    hlsnap_snapshot_release(o);
}

/* ---- tags that go, of indexes as nobody writes them, against the rule as the text has it ---- */

enum { MODEL_ENTRIES = 12 };
typedef struct model_entry { int digest, tag, says; } model_entry; /* tag 0: none; says 0: ours, 1: another's, 2: nothing */

static void model_name(char name[72], int tag, int digest) {
    if (tag) snprintf(name, 72, "t%d", tag);
    else snprintf(name, 72, "sha256:%064x", digest + 1);
}
static char *model_text(const model_entry *e, int n, const uint8_t *dropped, const uint8_t *bare) {
    static const char *const says[] = {OURS, NOT_OURS, ""};
    char *text = (char *)malloc(8000), *at = text, digest[72];
    int i, first = 1;
    at += sprintf(at, "{\"schemaVersion\":2,\"manifests\":[");
    for (i = 0; i < n; i++) {
        if (dropped && dropped[i]) continue;
        model_name(digest, 0, e[i].digest);
        at += sprintf(at, "%s{\"mediaType\":\"" MANIFEST_TYPE "\",\"digest\":\"%s\",\"size\":%d%s", first ? "" : ",", digest, 700 + i, says[e[i].says]);
        if (e[i].tag && bare && bare[i]) at += sprintf(at, ",\"annotations\":{}");
        else if (e[i].tag) at += sprintf(at, ",\"annotations\":{\"org.opencontainers.image.ref.name\":\"t%d\"}", e[i].tag);
        *at++ = '}', *at = 0;
        first = 0;
    }
    sprintf(at, "]}");
    return text;
}
static bool model_has(const model_entry *e, int tag, int digest) { return e->tag && (tag ? e->tag == tag : e->digest == digest); }

/* What comes of the tags and digests meant: the first error in the order given; else which entries go, and which lose their tag. */
static hlsnap_result model_untag(const model_entry *e, int n, int (*meant)[2], int num, uint8_t *dropped, uint8_t *bare) {
    int i, k, m;
    for (m = 0; m < num; m++) {
        bool found = false, ours = false;
        for (i = 0; i < n; i++)
            if (model_has(&e[i], meant[m][0], meant[m][1])) found = true, ours = ours || e[i].says != 1, bare[i] = 1;
        if (!found) return HLSNAP_ERR_NOT_FOUND;
        if (!ours) return HLSNAP_ERR_MEDIA_TYPE;
    }
    for (i = 0; i < n; i++)
        for (k = 0; k < n; k++)
            if (bare[i] && k != i && e[k].digest == e[i].digest && (!e[k].tag || (k < i && bare[k]))) dropped[i] = 1;
    return HLSNAP_OK;
}
static uint32_t model_random(uint32_t n) {
    static uint64_t x = 88172645463325252u;
    x ^= x << 13, x ^= x >> 7, x ^= x << 17;
    return (uint32_t)(x >> 33) % n;
}
static void untags_by_the_rule(void) {
    const char *dir = fresh();
    hlsnap_snapshot *s = snapshot_small(1);
    int round, i, seen[3] = {0};
    CHECK_EQ(save(dir, "v1", s, NULL), 0);
    for (round = 0; round < 2000; round++) {
        model_entry e[MODEL_ENTRIES];
        uint8_t dropped[MODEL_ENTRIES] = {0}, bare[MODEL_ENTRIES] = {0};
        char names[4][72], *text, *now;
        const char *tags[4];
        int meant[4][2], n = (int)model_random(MODEL_ENTRIES + 1), num = 1 + (int)model_random(4);
        hlsnap_result r, want;
        for (i = 0; i < n; i++) {
            e[i].digest = (int)model_random(4), e[i].tag = (int)model_random(5);
            e[i].says = (int)(model_random(2) ? 0 : model_random(3));
        }
        for (i = 0; i < num; i++) {
            meant[i][0] = (int)model_random(model_random(8) ? 5 : 6), meant[i][1] = (int)model_random(4);
            model_name(names[i], meant[i][0], meant[i][1]);
            tags[i] = names[i];
        }
        text = model_text(e, n, NULL, NULL);
        text_write(dir, "index.json", text, strlen(text));
        want = model_untag(e, n, meant, num, dropped, bare);
        if (!want) free(text), text = model_text(e, n, dropped, bare);
        r = hlsnap_oci_untag_all(dir, tags, (uint32_t)num, NULL, &err);
        now = text_read(dir, "index.json");
        if (!CHECK_EQ(r, want) || !CHECK(strcmp(now, text) == 0)) {
            printf("# round %d: %s\n# wanted %s\n# %s\n", round, err.msg, text, now);
            round = 2000;
        }
        seen[!r ? 0 : r == HLSNAP_ERR_NOT_FOUND ? 1 : 2]++;
        free(text), free(now);
    }
    if (!CHECK(seen[0] > 300 && seen[1] > 300 && seen[2] > 50)) printf("# %d %d %d\n", seen[0], seen[1], seen[2]);
    hlsnap_snapshot_release(s);
}

typedef struct rows_seen_sizes { int num, size, tagged; } rows_seen_sizes;
static bool see_size(const char *tag, hlsnap_result r, const hlsnap_oci_info *info, void *user) {
    rows_seen_sizes *n = (rows_seen_sizes *)user;
    (void)info;
    n->num++, n->size += r == HLSNAP_ERR_SIZE, n->tagged += tag[0] == 't';
    return true;
}

/* ---- what takes long: each document is read once, whatever says what of it ---- */

/* One large document of somebody else's, that entries of several kinds name in turn. */
static void one_document_many_kinds(void) {
    static const char *const kinds[] = {"\",\"mediaType\":\"" MANIFEST_TYPE "\"", "\",\"mediaType\":\"" INDEX_TYPE "\"",
                                        "\",\"artifactType\":\"" OTHER_TYPE "\",\"mediaType\":\"" MANIFEST_TYPE "\""};
    const char *dir = fresh();
    hlsnap_snapshot *s = snapshot_small(1);
    char *big = (char *)malloc(1 << 20), *text, *at, d[140];
    size_t size;
    int i, n = 0, way;
    CHECK_EQ(save(dir, "v1", s, NULL), 0);
    size = (size_t)sprintf(big, "{\"schemaVersion\":2,\"a\":\"%0500000d\"}", 1);
    blob_put(dir, big, d);
    text = (char *)malloc(600 * 400);
    for (at = text, i = 0; i < 600; i++) at += sprintf(at, "{\"digest\":\"%s%s,\"size\":%zu},", d, kinds[i % 3], size);
    at += sprintf(at, "{\"digest\":\"%s%s,\"size\":%zu}", d, kinds[0], size + 1);
    {
        char *old = text_read(dir, "index.json"), *end = strrchr(old, ']'), *now = NULL;
        CHECK(asprintf(&now, "%.*s,%s%s", (int)(end - old), old, text, end) > 0);
        text_write(dir, "index.json", now, strlen(now));
        free(old), free(now);
    }
    snprintf(counted, sizeof(counted), "%.64s", d + 7);
    at_read = count_reading;
    for (way = 0; way < 3; way++) {
        hlsnap_oci_info info;
        readings = 0;
        if (way == 0) CHECK_EQ(hlsnap_oci_list(dir, count, &n, &err), 0);
        if (way == 1 && !CHECK_EQ(hlsnap_oci_get_info(dir, "v1", &info, &err), 0)) printf("# %s\n", err.msg);
        if (way == 2) CHECK_EQ(gc(dir), 0);
        if (!CHECK(readings >= 1 && readings <= 20)) printf("# %d\n", readings);
    }
    at_read = NULL;
    free(big), free(text);
    hlsnap_snapshot_release(s);
}

/* A manifest with n layers; type NULL: cosign's. */
static void signed_by(const char *dir, const char *type, int n, char payloads[][140], int salt, char d[140]) {
    char *text = (char *)malloc((size_t)n * 300 + 400), *at = text;
    int i;
    at += sprintf(at, "{\"schemaVersion\":2,\"x\":\"" HLSNAP__OCI_SIGNED_TYPE "\",\"salt\":%d,\"layers\":[", salt);
    for (i = 0; i < n; i++) {
        char *p = text_read(dir, manifest_name(payloads[i]));
        at += sprintf(at, "%s{\"mediaType\":\"%s\",\"digest\":\"%s\",\"size\":%zu}", i ? "," : "", type ? type : HLSNAP__OCI_SIGNED_TYPE, payloads[i], strlen(p));
        free(p);
    }
    sprintf(at, "]}");
    listed(dir, MANIFEST_TYPE, text, NULL, ",\"annotations\":{\"kind\":\"dev.cosignproject.cosign/sigs\"}", d);
    free(text);
}

/* Payloads are read for cosign's signatures only, once each, and not for more than 64 of a manifest. */
static void many_payloads(void) {
    static char payloads[200][140];
    const char *dir = fresh();
    hlsnap_snapshot *s = snapshot_small(1);
    char digest[72], d[140], want[400];
    int i, n = 0;
    CHECK_EQ(save(dir, "v1", s, digest), 0);
    for (i = 0; i < 200; i++) {
        char text[300];
        snprintf(text, sizeof(text), "x{\"critical\":{\"image\":{\"docker-manifest-digest\":\"%s\"}},\"salt\":%d}", digest, i);
        blob_put(dir, text, payloads[i]); /* no JSON: only who looks for what is signed reads it */
    }
    for (i = 0; i < 20; i++) signed_by(dir, NULL, 64, payloads, i, d);
    signed_by(dir, "application/x", 200, payloads, 0, d);
    signed_by(dir, NULL, 65, payloads, 0, d);
    snprintf(counted, sizeof(counted), "%s/blobs/sha256/", dir);
    at_read = count_reading;
    readings = 0;
    CHECK_EQ(hlsnap_oci_list(dir, count, &n, &err), 0);
    at_read = NULL;
    if (!CHECK(readings >= 64 && readings <= 2 * 64 + 6 * 22)) printf("# %d\n", readings);
    CHECK_EQ(n, 1);
    snprintf(want, sizeof(want), "tag v1;");
    for (i = 0; i < 20; i++) strcat(want, "about -;");
    holders(dir, "v1", want);
    hlsnap_snapshot_release(s);
}

/* A config of another size than its manifest says is the config's fault: the manifest is read once, and every tag is told. */
static void config_of_another_size(void) {
    const char *dir = fresh();
    hlsnap_snapshot *s = snapshot_small(1);
    rows_seen_sizes seen = {0, 0, 0};
    char digest[72], config[72], *text, *now;
    CHECK_EQ(save(dir, "v1", s, digest), 0);
    piece_of(dir, digest, "config.v1+json", config);
    crowd(dir, digest, 100, 0);
    text = text_read(dir, manifest_name(config)), now = replaced(text, "{", "{ ");
    text_write(dir, manifest_name(config), now, strlen(now));
    snprintf(counted, sizeof(counted), "%s", digest + 7);
    at_read = count_reading;
    readings = 0;
    CHECK_EQ(hlsnap_oci_list_info(dir, see_size, &seen, &err), 0);
    at_read = NULL;
    CHECK_EQ(seen.num, 100);
    CHECK_EQ(seen.size, 100);
    CHECK_EQ(seen.tagged, 100);
    if (!CHECK(readings >= 1 && readings <= 12)) printf("# %d\n", readings);
    free(text), free(now);
    hlsnap_snapshot_release(s);
}

/* ---- digests in text ---- */

#define HEX64 "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
typedef struct text_row { const char *text, *found; } text_row;
static const text_row texts[] = {
    {"\"sha256:" HEX64 "\"", "sha256:" HEX64}, {"aaaasha256:" HEX64, "sha256:" HEX64}, {"sha256:0123456789abcdef0123456789absha256:" HEX64, "sha256:" HEX64},
    {"sha256:0ablake3:" HEX64, "blake3:" HEX64}, {"blake3:blake3:" HEX64, "blake3:" HEX64}, {"sha256:bblake3:" HEX64, "blake3:" HEX64},
    {"sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdeblake3:" HEX64, "blake3:" HEX64},
    {"sh\\u0061256:" HEX64, "sha256:" HEX64}, {"sha256\\u003A" HEX64, "sha256:" HEX64}, {"sha256:\\u0030123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef", "sha256:" HEX64},
    {"\\u0062lake3:" HEX64, "blake3:" HEX64}, {"sha256:0a\\u0062\\u006cake3:" HEX64, "blake3:" HEX64}, {"\\ublake3:" HEX64, "blake3:" HEX64}, {"\\u00blake3:" HEX64, "blake3:" HEX64},
    {"\\\\ublake3:" HEX64, "blake3:" HEX64}, {"\\u\\u0062lake3:" HEX64, "blake3:" HEX64}, {"\\/sha256:" HEX64, "sha256:" HEX64}, {"\\nsha256:" HEX64 "\\n", "sha256:" HEX64},
    {"sha512:" HEX64 HEX64, "sha512:" HEX64 HEX64}, {"sha256:" HEX64 HEX64, "sha256:" HEX64}, {"sha384:" HEX64, NULL}, {"sha256:" HEX64 "sha384:" HEX64 "01234567012345670123456701234567", "sha384:" HEX64 "01234567012345670123456701234567"},
    {"SHA256:" HEX64, NULL}, {"sha256 :" HEX64, NULL}, {"sha256:g" HEX64, NULL}, {"\\\\u0073ha256:" HEX64, NULL}};

static void digests_in_text(void) {
    size_t i, cut;
    int wide;
    for (i = 0; i < HLSNAP_COUNT(texts); i++)
        for (wide = 0; wide < 3; wide++) { /* as it is; UTF-16, little and big end first */
            char text[1200];
            size_t n = 0, k;
            for (k = 0; texts[i].text[k]; k++) {
                if (wide == 2) text[n++] = 0;
                text[n++] = texts[i].text[k];
                if (wide == 1) text[n++] = 0;
            }
            for (cut = 0; cut <= n; cut++) {
                hlsnap__oci_reach t;
                hlsnap__oci_finder f;
                bool found;
                memset(&t, 0, sizeof(t));
                memset(&f, 0, sizeof(f));
                t.subject = "";
                CHECK_EQ(hlsnap__oci_reach_text(NULL, &t, &f, text, cut, &err), 0);
                CHECK_EQ(hlsnap__oci_reach_text(NULL, &t, &f, text + cut, n - cut, &err), 0);
                found = texts[i].found ? hlsnap__oci_reach_find(&t, texts[i].found) != NULL : t.num == 0;
                hlsnap__oci_reach_free(&t);
                if (!CHECK(found)) {
                    printf("# %s, %d, cut at %zu\n", texts[i].text, wide, cut);
                    break;
                }
            }
        }
}

/* ---- somebody collects meanwhile ---- */

static const char *collected_dir;
static void collect_once(int fd) {
    count_reading(fd);
    if (!readings) return;
    at_read = NULL;
    CHECK_EQ(hlsnap_oci_untag(collected_dir, "v2", &err), 0);
    CHECK_EQ(gc(collected_dir), 0);
}
typedef struct rows_seen { int num, bad; } rows_seen;
static bool see(const char *tag, hlsnap_result r, const hlsnap_oci_info *info, void *user) {
    rows_seen *n = (rows_seen *)user;
    (void)tag, (void)info;
    n->num++, n->bad += r != HLSNAP_OK;
    return true;
}
static bool see_plain(const char *tag, const hlsnap_oci_digest *digest, uint64_t bytes, void *user) {
    hlsnap_oci_info unused;
    (void)digest;
    return see(tag, bytes ? HLSNAP_OK : HLSNAP_ERR_FILE, &unused, user);
}

static bool cry(const hlsnap_oci_problem *p, void *user) { return (void)user, printf("# %s\n", p->text), CHECK(!"nothing is told of it"); }

/* What goes between the look at the index and the look at its blobs is no damage. */
static void collected_meanwhile(void) {
    int way;
    for (way = 0; way < 5; way++) {
        const char *dir = fresh();
        hlsnap_snapshot *s = snapshot_small(1), *o = snapshot_small(2);
        char first[72], digest[72];
        rows_seen rows = {0, 0};
        hlsnap_oci_info info;
        CHECK_EQ(save(dir, "v1", s, first), 0);
        CHECK_EQ(save(dir, "v2", o, digest), 0);
        snprintf(counted, sizeof(counted), "%s", first + 7); /* at the first entry's manifest the second one goes */
        collected_dir = dir;
        readings = 0;
        at_read = collect_once;
        if (way == 0) CHECK_EQ(hlsnap_oci_list(dir, see_plain, &rows, &err), 0);
        if (way == 1) CHECK_EQ(hlsnap_oci_list_info(dir, see, &rows, &err), 0);
        if (way == 2 && !CHECK_EQ(hlsnap_oci_fsck(dir, false, &err), 0)) printf("# %s\n", err.msg);
        if (way == 3) CHECK_EQ(hlsnap_oci_get_info(dir, "v1", &info, &err), 0);
        if (way == 4) {
            hlsnap_oci_desc desc = HLSNAP_ZERO;
            desc.on_problem = cry;
            CHECK_EQ(hlsnap_oci_fsck_with(dir, false, &desc, &err), 0);
        }
        CHECK(at_read == NULL);
        CHECK_EQ(rows.num, way < 2);
        CHECK_EQ(rows.bad, 0);
        CHECK(!blob_there(dir, digest));
        hlsnap_snapshot_release(s);
        hlsnap_snapshot_release(o);
    }
}

/* ---- lost, other versions, times ---- */

/* Also where gc, tag or a repair made the lock file. Others' documents, and snapshots of another version, are found, too. */
static void lost_beside_others(void) {
    const char *dir = fresh();
    hlsnap_snapshot *s = snapshot_small(1), *o = snapshot_small(2);
    char digest[72];
    int n;
    for (n = 0; n < 3; n++) {
        char *m, *now, text[400], newer[140], image[140], layer[140];
        CHECK_EQ(sh("rm -rf %s", dir), 0);
        CHECK_EQ(save(dir, "v1", s, digest), 0);
        m = text_read(dir, manifest_name(digest));
        now = replaced(m, "\"dev.hlsnap.version\":\"3\"", "\"dev.hlsnap.version\":\"4\"");
        listed(dir, MANIFEST_TYPE, now, "newer", NULL, newer);
        blob_put(dir, "a layer of another's", layer);
        snprintf(text, sizeof(text), "{\"schemaVersion\":2,\"mediaType\":\"" MANIFEST_TYPE "\",\"layers\":[{\"digest\":\"%s\"}]}", layer);
        listed(dir, MANIFEST_TYPE, text, "image", NULL, image);
        CHECK_EQ(sh("rm %s/.hlsnap.lock", dir), 0);
        CHECK_EQ(n == 0 ? hlsnap_oci_gc(dir, 3600, NULL, &err) : n == 1 ? hlsnap_oci_tag(dir, "v1", "v2", &err) : hlsnap_oci_fsck(dir, true, &err), 0);
        CHECK_EQ(sh("[ $(cat %s/.hlsnap.lock) = i ]", dir), 0); /* whoever made it says that there is an index */
        CHECK_EQ(sh("rm %s/index.json; cp %s/%s %s/blobs/sha256/%064d", dir, dir, manifest_name(digest), dir, 7), 0);
        CHECK_EQ(loads(dir, "v1"), HLSNAP_ERR_FILE);
        CHECK_EQ(save(dir, "v9", o, NULL), HLSNAP_ERR_FILE);
        CHECK_EQ(hlsnap_oci_fsck(dir, true, &err), 0);
        snprintf(text, sizeof(text), "recovered-%.12s", newer + 7);
        CHECK(index_has(dir, text) && !index_has(dir, "sha256:0000000")); /* nor one that is not what its name says */
        CHECK_EQ(gc(dir), 0);
        CHECK(blob_there(dir, newer) && blob_there(dir, image) && blob_there(dir, layer));
        CHECK_EQ(loads(dir, digest), 0);
        free(m), free(now);
    }
    hlsnap_snapshot_release(s);
    hlsnap_snapshot_release(o);
}

static bool never(uint64_t done, uint64_t total, void *user) { return (void)done, (void)user, total == UINT64_MAX; }
static hlsnap_result save_cancelled(const char *dir, hlsnap_snapshot *s) {
    hlsnap_oci_desc desc = HLSNAP_ZERO;
    desc.progress = never;
    return hlsnap_oci_save(dir, "v1", s, &desc, NULL, &err);
}

/* An index that is lost while a save or a copy is at work: no new one takes its place. */
static bool lose_index(uint64_t done, uint64_t total, void *user) {
    return (void)done, (void)total, sh("[ ! -e %s/index.json ] || mv %s/index.json %s/index.kept", (const char *)user, (const char *)user, (const char *)user) == 0;
}
static void lost_meanwhile(void) {
    const char *dir = fresh(), *from = fresh();
    hlsnap_snapshot *s = snapshot_small(1), *o = snapshot_small(2);
    hlsnap_oci_desc desc = HLSNAP_ZERO;
    int i;
    desc.progress = lose_index;
    desc.user = (void *)(uintptr_t)dir;
    CHECK_EQ(save(dir, "v1", s, NULL), 0);
    CHECK_EQ(save(from, "v2", o, NULL), 0);
    CHECK_EQ(sh("find %s -type f | sort | xargs sha256sum >before", dir), 0);
    for (i = 0; i < 2; i++) {
        CHECK_EQ(i ? hlsnap_oci_copy(from, "v2", dir, "v2", &desc, NULL, &err) : hlsnap_oci_save(dir, "v2", o, &desc, NULL, &err), HLSNAP_ERR_FILE);
        CHECK(strstr(err.msg, "index.json: lost") != NULL);
        CHECK_EQ(sh("mv %s/index.kept %s/index.json", dir, dir), 0);
        CHECK_EQ(sh("find %s -type f | sort | xargs sha256sum | cmp - before", dir), 0); /* nothing is left of it, nothing is gone */
        CHECK_EQ(loads(dir, "v1"), 0);
    }
    hlsnap_snapshot_release(s);
    hlsnap_snapshot_release(o);
}

/* One that a copy, or the first save, has begun says that it has an index, too. */
static void lost_copy(void) {
    const char *dir = fresh(), *to = fresh();
    hlsnap_snapshot *s = snapshot_small(1);
    CHECK_EQ(save(dir, "v1", s, NULL), 0);
    CHECK_EQ(hlsnap_oci_copy(dir, "v1", to, "v1", NULL, NULL, &err), 0);
    CHECK_EQ(sh("[ $(cat %s/.hlsnap.lock) = i ] && [ $(cat %s/.hlsnap.lock) = i ] && rm %s/index.json", dir, to, to), 0);
    CHECK_EQ(loads(to, "v1"), HLSNAP_ERR_FILE);
    CHECK_EQ(save(to, "v2", s, NULL), HLSNAP_ERR_FILE);
    CHECK_EQ(hlsnap_oci_copy(dir, "v1", to, "v2", NULL, NULL, &err), HLSNAP_ERR_FILE);
    CHECK_EQ(hlsnap_oci_gc(to, 0, NULL, &err), HLSNAP_ERR_FILE);
    hlsnap_snapshot_release(s);
}

/* fsck reads no blob beyond max_bytes: a memory layer, here the largest of all. */
static void fsck_reads_no_more(void) {
    const char *dir = fresh();
    hlsnap_snapshot *s = snapshot_small(1);
    hlsnap_oci_desc desc = HLSNAP_ZERO;
    CHECK_EQ(save(dir, "v1", s, NULL), 0);
    desc.max_bytes = 42 * P; /* what is shown of both layers, in one */
    CHECK_EQ(hlsnap_oci_fsck_with(dir, false, &desc, &err), HLSNAP_OK);
    desc.max_bytes--;
    CHECK_EQ(hlsnap_oci_fsck_with(dir, false, &desc, &err), HLSNAP_ERR_LIMIT);
    CHECK(strstr(err.msg, "bytes, not looked at") != NULL);
    hlsnap_snapshot_release(s);
}

static void lost_index(void) {
    const char *dir = fresh();
    hlsnap_snapshot *s = snapshot_small(1), *o = snapshot_small(2);
    char digest[72], other[72], tag[80];
    int locked, n;
    for (locked = 0; locked < 2; locked++) {
        CHECK_EQ(sh("rm -rf %s", dir), 0);
        CHECK_EQ(loads(dir, "v1"), HLSNAP_ERR_NOT_FOUND); /* nothing there: start afresh */
        CHECK(strstr(err.msg, "no layout there") != NULL);
        CHECK_EQ(save(dir, "v1", s, digest), 0);
        CHECK_EQ(save(dir, "v2", o, other), 0);
        CHECK_EQ(sh("rm %s/index.json %s%s", dir, locked ? "" : dir, locked ? "" : "/.hlsnap.lock"), 0);
        CHECK_EQ(loads(dir, "v1"), HLSNAP_ERR_FILE); /* not that: something is lost */
        CHECK(strstr(err.msg, "index.json") != NULL && strstr(err.msg, "lost") != NULL);
        CHECK_EQ(save(dir, "v3", s, NULL), HLSNAP_ERR_FILE);
        CHECK(strstr(err.msg, "lost") != NULL);
        CHECK_EQ(hlsnap_oci_gc(dir, 0, NULL, &err), HLSNAP_ERR_FILE);
        CHECK_EQ(hlsnap_oci_tag(dir, digest, "v3", &err), HLSNAP_ERR_FILE);
        CHECK_EQ(hlsnap_oci_list(dir, count, &n, &err), HLSNAP_ERR_FILE);
        CHECK_EQ(hlsnap_oci_fsck(dir, false, &err), HLSNAP_ERR_FILE);
        CHECK(!index_has(dir, ""));
        CHECK_EQ(hlsnap_oci_fsck(dir, true, &err), HLSNAP_OK);
        snprintf(tag, sizeof(tag), "recovered-%.12s", digest + 7);
        CHECK_EQ(loads(dir, tag), 0);
        CHECK_EQ(gc(dir), 0);
        CHECK_EQ(loads(dir, digest), 0);
        CHECK_EQ(loads(dir, other), 0);
        CHECK_EQ(save(dir, "v3", s, NULL), 0);
        CHECK_EQ(loads(dir, "v3"), 0);
    }
    /* blobs of others, and nothing of ours: a layout that another tool has just begun */
    CHECK_EQ(sh("rm -rf %s; mkdir -p %s/blobs/sha256; echo x > %s/blobs/sha256/x; echo -n '?' >%s/.hlsnap.lock", dir, dir, dir, dir), 0);
    CHECK_EQ(save_cancelled(dir, s), HLSNAP_ERR_CANCELLED);
    CHECK_EQ(sh("[ -e %s/.hlsnap.lock ] && [ ! -s %s/.hlsnap.lock ]", dir, dir), 0); /* it was looked: none of ours */
    CHECK_EQ(save(dir, "v1", s, NULL), 0);
    CHECK_EQ(sh("[ $(cat %s/.hlsnap.lock) = i ]", dir), 0);
    /* a save that was killed before it had an index: the lock file is empty */
    CHECK_EQ(sh("rm %s/index.json; : > %s/.hlsnap.lock", dir, dir), 0);
    CHECK_EQ(save(dir, "v1", s, NULL), 0);
    /* a blob that is lost is another thing than no layout */
    CHECK_EQ(sh("rm %s/%s", dir, manifest_name(digest)), 0);
    CHECK_EQ(loads(dir, "v1"), HLSNAP_ERR_FILE);
    hlsnap_snapshot_release(s);
    hlsnap_snapshot_release(o);
}

static bool no_text(const char *key, const char *value, void *user) { return (void)key, (void)value, (void)user, CHECK(!"nothing is told of it"); }
static bool no_layer(const hlsnap_oci_layer *layer, void *user) { return (void)layer, (void)user, CHECK(!"nothing is told of it"); }

/* A layout of another version says so, whatever else has changed in it, and whoever reads its manifest. */
static void other_versions(void) {
    static const struct { const char *from, *to; } forms[] = {
        {"\"layers\":[", "\"layers\":["}, {"\"layers\":[", "\"layers\":[],\"old\":["}, {"\"layers\":[", "\"layers\":7,\"old\":["}, {"\"layers\":[", "\"levels\":["},
        {"\"config\":{", "\"config\":{\"more\":[{}],"}};
    hlsnap_snapshot *s = snapshot_small(1);
    hlsnap_oci_info info;
    char digest[72], from[60], number[40], d[140];
    size_t i;
    snprintf(from, sizeof(from), "\"dev.hlsnap.version\":\"%d\"", HLSNAP_SNAPSHOT_VERSION);
    snprintf(number, sizeof(number), "format version 0, this is %d", HLSNAP_SNAPSHOT_VERSION);
    for (i = 0; i < HLSNAP_COUNT(forms); i++) {
        const char *dir = fresh();
        char *old, *form, *now;
        CHECK_EQ(save(dir, "v1", s, digest), 0);
        old = text_read(dir, manifest_name(digest)), form = replaced(old, forms[i].from, forms[i].to), now = replaced(form, from, "\"dev.hlsnap.version\":\"0\"");
        CHECK_EQ(hlsnap_oci_untag(dir, "v1", &err), 0);
        listed(dir, MANIFEST_TYPE, now, "v1", NULL, d);
        free(old), free(form), free(now);
        CHECK_EQ(loads(dir, "v1"), HLSNAP_ERR_VERSION);
        CHECK(strstr(err.msg, number) != NULL);
        CHECK_EQ(hlsnap_oci_get_info(dir, "v1", &info, &err), HLSNAP_ERR_VERSION);
        CHECK_EQ(hlsnap_oci_annotations(dir, "v1", no_text, NULL, &err), HLSNAP_ERR_VERSION);
        CHECK_EQ(hlsnap_oci_layers(dir, "v1", no_layer, NULL, &err), HLSNAP_ERR_VERSION);
        CHECK_EQ(hlsnap_oci_tag(dir, "v1", "v2", &err), HLSNAP_ERR_VERSION);
        CHECK_EQ(hlsnap_oci_copy(dir, "v1", fresh(), NULL, NULL, NULL, &err), HLSNAP_ERR_VERSION);
        CHECK_EQ(hlsnap_oci_untag(dir, "v1", &err), 0); /* it can be removed all the same */
        CHECK_EQ(hlsnap_oci_fsck(dir, false, &err), 0);
    }
    hlsnap_snapshot_release(s);
}

/* A config of another version behind a manifest of this one: refused by its number, but no damage. */
static void other_versions_of_the_config(void) {
    static const char *const names[] = {"abi", "version"};
    const int numbers[] = {HLSNAP_ABI_VERSION, HLSNAP_SNAPSHOT_VERSION};
    hlsnap_snapshot *s = snapshot_small(1);
    size_t i;
    for (i = 0; i < 2; i++) {
        const char *dir = fresh();
        char digest[72], config[72], d[140], from[40], to[40], *m, *c, *other, *now;
        CHECK_EQ(save(dir, "v1", s, digest), 0);
        piece_of(dir, digest, "config.v1+json", config);
        m = text_read(dir, manifest_name(digest)), c = text_read(dir, manifest_name(config));
        snprintf(from, sizeof(from), "\"%s\":%d", names[i], numbers[i]);
        snprintf(to, sizeof(to), "\"%s\":9", names[i]);
        other = replaced(c, from, to);
        blob_put(dir, other, d);
        now = replaced(m, config, d);
        CHECK_EQ(hlsnap_oci_untag(dir, "v1", &err), 0);
        listed(dir, MANIFEST_TYPE, now, "v1", NULL, d);
        CHECK_EQ(gc(dir), 0);
        CHECK_EQ(loads(dir, "v1"), HLSNAP_ERR_VERSION);
        CHECK_EQ(hlsnap_oci_fsck(dir, false, &err), 0);
        CHECK_EQ(hlsnap_oci_copy(dir, "v1", fresh(), NULL, NULL, NULL, &err), 0);
        free(m), free(c), free(other), free(now);
    }
    hlsnap_snapshot_release(s);
}

/* ---- fsck tells all problems ---- */

/* What was told: "CODE tag 8 digits of the digest" of each, * = repaired, in order of the alphabet. */
static struct { char lines[64][120]; int num, repaired, stop; uint64_t done, total, calls, end; bool odd; } told;
static bool tell(const hlsnap_oci_problem *p, void *user) {
    const char *text = p->text;
    if (user != &told || !p->text[0] || strlen(p->text) > 511 || (p->digest[0] && strlen(p->digest) != 71)) told.odd = true;
    for (; *text; text++) if (*text < ' ' || *text > '~') told.odd = true;
    if (told.num < 64) snprintf(told.lines[told.num], sizeof(told.lines[0]), "%s %s %.8s%s", hlsnap_result_name(p->code) + 11, p->ref, p->digest[0] ? p->digest + 7 : "-", p->repaired ? " *" : "");
    told.num++;
    told.repaired += p->repaired;
    return told.num != told.stop;
}
static bool tell_progress(uint64_t done, uint64_t total, void *user) {
    if (user != &told || done > total || done < told.done || (told.total && total != told.total)) told.odd = true;
    told.done = done, told.total = total;
    return ++told.calls != told.end;
}
static int by_text(const void *a, const void *b) { return strcmp((const char *)a, (const char *)b); }
static hlsnap_result tells(const char *dir, bool repair, uint32_t threads, int stop, uint64_t end) {
    hlsnap_oci_desc d = HLSNAP_ZERO;
    hlsnap_result r;
    memset(&told, 0, sizeof(told));
    told.stop = stop, told.end = end;
    d.threads = threads, d.on_problem = tell, d.user = &told;
    if (threads > 1 || end) d.progress = tell_progress;
    r = hlsnap_oci_fsck_with(dir, repair, &d, &err);
    CHECK(!told.odd);
    qsort(told.lines, told.num < 64 ? (size_t)told.num : 64, sizeof(told.lines[0]), by_text);
    return r;
}
static void was_told(const char *want) { /* lines, each with an end */
    char all[8000] = "";
    int i;
    for (i = 0; i < told.num && i < 64; i++) sprintf(all + strlen(all), "%s\n", told.lines[i]);
    CHECK_STR(all, want);
}
static void line_add(char *lines, const char *fmt, const char *digest) { /* kept in order */
    char rows[64][120];
    int n = 0, i;
    char *at, *save_at = NULL, copy[8000];
    snprintf(copy, sizeof(copy), "%s", lines);
    for (at = strtok_r(copy, "\n", &save_at); at; at = strtok_r(NULL, "\n", &save_at)) snprintf(rows[n++], 120, "%s", at);
    snprintf(rows[n++], 120, fmt, digest ? digest + 7 : "");
    qsort(rows, (size_t)n, sizeof(rows[0]), by_text);
    for (i = 0, lines[0] = 0; i < n; i++) sprintf(lines + strlen(lines), "%s\n", rows[i]);
}

/* A layout with one of each kind of damage; lines: what is to be told of it. */
static void damaged(const char *dir, bool repair, char lines[8000]) {
    const char *const stars = "0000000000000000000000000000000000000000000000000000000000000000";
    char digest[8][72], piece[72], d[140], text[200];
    int i;
    lines[0] = 0;
    for (i = 0; i < 8; i++) {
        hlsnap_snapshot *s = snapshot_small((uint64_t)(10 * i + 1));
        snprintf(text, sizeof(text), "v%d", i);
        CHECK_EQ(save(dir, text, s, digest[i]), 0);
        hlsnap_snapshot_release(s);
    }
    CHECK_EQ(hlsnap_oci_tag(dir, "v0", "also", &err), 0); /* two tags of one manifest that is lost: one problem */
    CHECK_EQ(sh("rm %s/%s", dir, manifest_name(digest[0])), 0);
    line_add(lines, "FILE v0 %.8s", digest[0]);
    piece_of(dir, digest[1], "chunks.v1", piece);
    CHECK_EQ(sh("rm %s/%s", dir, manifest_name(piece)), 0);
    line_add(lines, "FILE v1 %.8s", piece);
    piece_of(dir, digest[2], "memory.v1", piece);
    CHECK_EQ(sh("printf x | dd of=%s/%s bs=1 seek=9000 conv=notrunc status=none", dir, manifest_name(piece)), 0);
    line_add(lines, "DIGEST v2 %.8s", piece);
    piece_of(dir, digest[3], "memory.v1", piece);
    CHECK_EQ(sh("truncate -s 4096 %s/%s", dir, manifest_name(piece)), 0);
    line_add(lines, "SIZE v3 %.8s", piece);
    CHECK_EQ(sh("printf x | dd of=%s/%s bs=1 seek=20 conv=notrunc status=none", dir, manifest_name(digest[4])), 0);
    line_add(lines, "DIGEST v4 %.8s", digest[4]);
    piece_of(dir, digest[5], "config.v1+json", piece); /* and a blob behind a config that is damaged */
    CHECK_EQ(sh("printf x | dd of=%s/%s bs=1 seek=20 conv=notrunc status=none", dir, manifest_name(piece)), 0);
    line_add(lines, "DIGEST v5 %.8s", piece);
    piece_of(dir, digest[5], "memory.v1", piece);
    CHECK_EQ(sh("rm %s/%s && mkdir %s/%s", dir, manifest_name(piece), dir, manifest_name(piece)), 0);
    line_add(lines, "FILE v5 %.8s", piece);
    { /* v6: a manifest that means v7's chunk list for its own memory */
        char *m = text_read(dir, manifest_name(digest[6])), *now, other[72];
        piece_of(dir, digest[6], "chunks.v1", piece);
        piece_of(dir, digest[7], "chunks.v1", other);
        now = replaced(m, piece, other);
        CHECK_EQ(hlsnap_oci_untag(dir, "v6", &err), 0);
        listed(dir, MANIFEST_TYPE, now, "w6", NULL, d);
        free(m), free(now);
        line_add(lines, "CONFIG w6 %.8s", d); /* whose config says the other one */
        piece_of(dir, digest[6], "memory.v1", piece);
        line_add(lines, "DIGEST w6 %.8s", piece); /* it cannot be both */
    }
    CHECK_EQ(hlsnap_oci_tag(dir, "v7", "v1b", &err), 0);
    edit(dir, "index.json", "\"v1b\"", "\"v7\"");
    line_add(lines, "AMBIGUOUS v7 %.8s", digest[7]);
    {
        char *m = text_read(dir, manifest_name(digest[7]));
        entry_add(dir, MANIFEST_TYPE, digest[7], strlen(m) + 5, "misfit", NULL); /* its descriptor is wrong */
        line_add(lines, "SIZE misfit %.8s", digest[7]);
        free(m);
    }
    CHECK_EQ(sh("echo y >%s/blobs/sha256/stray; echo z >%s/blobs/sha256/%s", dir, dir, stars), 0);
    line_add(lines, "FILE  -", NULL);
    line_add(lines, "DIGEST  00000000", NULL); /* of all that is not read nobody knows where it leads: it stays */
    CHECK_EQ(sh("rm %s/oci-layout", dir), 0);
    line_add(lines, repair ? "FILE  - *" : "FILE  -", NULL);
}

static void tells_all(void) {
    static char lines[8000], first[512];
    int how, problems;
    for (how = 0; how < 4; how++) {
        const bool repair = how % 2;
        const uint32_t threads = how < 2 ? 1 : 4;
        const char *dir = fresh();
        hlsnap_oci_desc d = HLSNAP_ZERO;
        damaged(dir, repair, lines);
        CHECK_EQ(sh("find %s -type f | sort | xargs sha256sum >before", dir), 0);
        CHECK_EQ(hlsnap_oci_fsck(dir, false, &err), HLSNAP_ERR_FILE); /* oci-layout is the first */
        CHECK(strstr(err.msg, "oci-layout") && strstr(err.msg, " (and more)"));
        CHECK_EQ(sh("find %s -type f | sort | xargs sha256sum | cmp - before", dir), 0);
        CHECK_EQ(tells(dir, repair, threads, 0, 0), HLSNAP_ERR_FILE);
        was_told(lines);
        CHECK_EQ(told.repaired, repair);
        problems = told.num;
        snprintf(first, sizeof(first), "%s", err.msg);
        d.threads = 5 - threads; /* and the first one does not depend on threads */
        if (!repair) CHECK_EQ(hlsnap_oci_fsck_with(dir, false, &d, &err), HLSNAP_ERR_FILE);
        if (!repair) CHECK_STR(err.msg, first);
        CHECK_EQ(tells(dir, false, threads, 3, 0), HLSNAP_ERR_CANCELLED); /* who has heard enough */
        CHECK_EQ(told.num, 3);
        CHECK(strstr(err.msg, "cancelled by on_problem") != NULL);
        CHECK_EQ(tells(dir, false, threads, problems - 1, 0), HLSNAP_ERR_CANCELLED); /* in the middle of the blobs */
        CHECK_EQ(told.num, problems - 1);
    }
}

static void tells_progress(void) {
    const char *dir = fresh();
    hlsnap_snapshot *s = snapshot_small(1);
    uint32_t threads;
    uint64_t calls, k;
    CHECK_EQ(save(dir, "v1", s, NULL), 0);
    CHECK_EQ(save(dir, "v2", s, NULL), 0);
    for (threads = 1; threads <= 4; threads += 3) {
        CHECK_EQ(tells(dir, false, threads, 0, 1000), HLSNAP_OK);
        CHECK_EQ(told.num, 0);
        if (!CHECK(told.done == told.total && told.total > 40 * 4096)) printf("# %llu of %llu\n", (unsigned long long)told.done, (unsigned long long)told.total);
        calls = told.calls;
        CHECK(calls > 4);
        for (k = 1; k < (threads == 1 ? calls : 5); k++) {
            CHECK_EQ(tells(dir, k % 2, threads, 0, k), HLSNAP_ERR_CANCELLED);
            CHECK_EQ(told.calls, k);
        }
    }
    CHECK_EQ(hlsnap_oci_fsck(dir, false, &err), 0);
    hlsnap_snapshot_release(s);
}

/* Lost or malformed, the index hides neither what is wrong with the blobs nor oci-layout; repair mends the one and leaves the other
   alone. A blob that nobody needs goes. */
static void tells_beside_the_index(void) {
    int how;
    for (how = 0; how < 4; how++) {
        const char *dir = fresh();
        hlsnap_snapshot *s = snapshot_small(1);
        const bool lost = how % 2, repair = how / 2;
        CHECK_EQ(save(dir, "v1", s, NULL), 0);
        CHECK_EQ(sh("echo z >%s/blobs/sha256/%064d; rm %s/oci-layout %s/.hlsnap.lock; %s %s/index.json", dir, 7, dir, dir, lost ? "rm" : "truncate -s 9", dir), 0);
        CHECK_EQ(tells(dir, repair, 1, 0, 0), lost && repair ? HLSNAP_OK : lost ? HLSNAP_ERR_FILE : HLSNAP_ERR_JSON);
        if (lost && !repair) was_told("DIGEST  00000000\nFILE  -\nFILE  -\n");
        if (lost && repair) was_told("DIGEST  00000000 *\nFILE  - *\nFILE  - *\n");
        if (!lost) was_told("DIGEST  00000000\nFILE  -\nJSON  -\n");
        if (!lost || !repair) CHECK_EQ(sh("test -e %s/blobs/sha256/%064d && ! test -e %s/oci-layout && ! test -e %s/.hlsnap.lock", dir, 7, dir, dir), 0);
        if (lost && repair) CHECK_EQ(tells(dir, false, 2, 0, 0), HLSNAP_OK);
        hlsnap_snapshot_release(s);
    }
}

/* As many problems as somebody likes to make cost time that grows with them, and the callback decides how much is written. */
static void tells_very_many(void) {
    const char *dir = fresh();
    hlsnap_snapshot *s = snapshot_small(1);
    enum { N = 40000 };
    char *text = (char *)malloc((size_t)N * 220 + 100), *at = text;
    clock_t began;
    int i;
    CHECK_EQ(save(dir, "v1", s, NULL), 0);
    at += sprintf(at, "{\"schemaVersion\":2,\"manifests\":[");
    for (i = 0; i < N; i++)
        at += sprintf(at, "%s{\"mediaType\":\"" MANIFEST_TYPE "\",\"digest\":\"sha256:%064x\",\"size\":%d,\"annotations\":{\"org.opencontainers.image.ref.name\":\"t%d\"}}",
                      i ? "," : "", i + 1, i % 2 ? 7 : i, i % 4 ? i : 0);
    at += sprintf(at, "]}");
    text_write(dir, "index.json", text, (size_t)(at - text));
    began = clock();
    CHECK_EQ(tells(dir, false, 4, 0, 0), HLSNAP_ERR_INDEX); /* one has no bytes, and is not there, too */
    printf("# %d problems in %ld ms of this process's time\n", told.num, (long)((clock() - began) / (CLOCKS_PER_SEC / 1000)));
    CHECK_EQ(told.num, N + 1);
    CHECK(clock() - began < 60 * CLOCKS_PER_SEC);
    CHECK_EQ(tells(dir, false, 1, 5, 0), HLSNAP_ERR_CANCELLED);
    CHECK_EQ(told.num, 5);
    free(text);
    hlsnap_snapshot_release(s);
}

static void times(void) {
    static const struct { const char *text; int64_t t; } rows[] = {
        {"1970-01-01T00:00:01Z", 1}, {"2026-11-29T08:15:30Z", 1795940130}, {"2026-11-29T09:15:30+01:00", 1795940130}, {"2026-11-29t08:15:30.123456789z", 1795940130},
        {"2026-11-29T00:15:30-08:00", 1795940130}, {"2000-02-29T23:59:60Z", 951868800}, {"9999-12-31T23:59:59Z", 253402300799}, {"2026-11-29", 0}, {"", 0}, {"now", 0},
        {"2026-13-01T00:00:00Z", 0}, {"2026-00-01T00:00:00Z", 0}, {"2026-11-29T24:00:00Z", 0}, {"2026-11-29T08:15:30", 0}, {"2026-11-29T08:15:30+1:00", 0}, {"1969-12-31T23:59:59Z", 0},
        {"2026-11-29 08:15:30Z", 0}, {"2026-11-29T08:15:30Zx", 0}};
    const char *dir = fresh();
    hlsnap_snapshot *s = snapshot_small(1);
    hlsnap_oci_desc desc = HLSNAP_ZERO;
    hlsnap_oci_info info;
    hlsnap_oci_digest a, b;
    uint64_t seed = 5;
    size_t i;
    int64_t now = (int64_t)time(NULL);
    for (i = 0; i < HLSNAP_COUNT(rows); i++)
        if (!CHECK_EQ(hlsnap__oci_created(rows[i].text), rows[i].t)) printf("# %s\n", rows[i].text);
    for (i = 0; i < 20000; i++) {
        const time_t t = (time_t)(lcg(&seed) % 253402300799ull + 1);
        struct tm tm;
        char mine[32], theirs[64];
        hlsnap__oci_time_text((int64_t)t, mine);
        gmtime_r(&t, &tm);
        strftime(theirs, sizeof(theirs), "%Y-%m-%dT%H:%M:%SZ", &tm);
        if (strncmp(theirs, "999", 3) && strlen(theirs) != 20) snprintf(theirs, sizeof(theirs), "%s", mine); /* libc does not pad years */
        if (!CHECK(strcmp(mine, theirs) == 0 && hlsnap__oci_created(mine) == (int64_t)t)) break;
    }
    CHECK_EQ(hlsnap_oci_save(dir, "v1", s, NULL, &a, &err), 0);
    CHECK_EQ(hlsnap_oci_get_info(dir, "v1", &info, &err), 0);
    CHECK(info.created >= now && info.created < now + 100);
    now = info.created;
    CHECK_EQ(hlsnap_oci_tag(dir, "v1", "v2", &err), 0);
    CHECK_EQ(hlsnap_oci_get_info(dir, "v2", &info, &err), 0);
    CHECK_EQ(info.created, now); /* of the snapshot, not of the tag */
    desc.created = 1000000000;
    CHECK_EQ(hlsnap_oci_save(dir, "v3", s, &desc, &b, &err), 0);
    CHECK(strcmp(a.text, b.text) != 0); /* it stands in the manifest, too */
    CHECK(index_has(dir, "\"2001-09-09T01:46:40Z\""));
    edit(dir, "index.json", "\"org.opencontainers.image.created\":\"2001-09-09T01:46:40Z\",", "");
    CHECK_EQ(hlsnap_oci_get_info(dir, "v3", &info, &err), 0);
    CHECK_EQ(info.created, 1000000000);
    desc.created = -1;
    CHECK_EQ(hlsnap_oci_save(dir, "v4", s, &desc, &b, &err), 0);
    CHECK_STR(a.text, b.text);
    desc.created = -2;
    CHECK_EQ(hlsnap_oci_save(dir, "v4", s, &desc, &b, &err), HLSNAP_ERR_ARG);
    desc.created = 253402300800;
    CHECK_EQ(hlsnap_oci_save(dir, "v4", s, &desc, &b, &err), HLSNAP_ERR_ARG);
    hlsnap_snapshot_release(s);
}

static const test_row tests[] = {TEST(two_meanings), TEST(others_may_write), TEST(names_of_other_tools), TEST(tag_like_a_digest), TEST(untags_no_others),
    TEST(collects_around_anything), TEST(collects_nothing_around_damage), TEST(collects_nothing_around_damaged_kinds), TEST(collects_around_inner_documents), TEST(goes_with_its_subject), TEST(snapshot_about_a_snapshot), TEST(signature_by_its_payload), TEST(referrers_of_all_sorts), TEST(one_referrer_two_entries),
    TEST(tags_of_that_form), TEST(tags_nearly_of_that_form), TEST(listed_before_its_subject), TEST(claims_hide_nothing), TEST(claims_of_other_sorts), TEST(subject_beside_deep_nesting), TEST(young_signature), TEST(signs_several), TEST(own_beside_referrers), TEST(untagged_and_damaged), TEST(named_elsewhere), TEST(missing_behind_others),
    TEST(pinned_by_an_index), TEST(nests_less), TEST(many_entries), TEST(as_large_as_it_may_be), TEST(one_config_many_manifests), TEST(one_manifest_is_read_once), TEST(names_without_number), TEST(untags_what_is_listed_often), TEST(untags_all_or_none),
    TEST(untags_by_the_rule), TEST(one_document_many_kinds), TEST(many_payloads), TEST(config_of_another_size), TEST(digests_in_text), TEST(collected_meanwhile), TEST(lost_index), TEST(lost_meanwhile), TEST(lost_copy), TEST(lost_beside_others),
    TEST(other_versions), TEST(other_versions_of_the_config), TEST(fsck_reads_no_more), TEST(tells_all), TEST(tells_progress), TEST(tells_beside_the_index), TEST(tells_very_many), TEST(times)};

int main(int argc, char **argv) {
    char home[200];
    const char *tmp = getenv("TMPDIR");
    int r;
    snprintf(home, sizeof(home), "%s/hlsnap-index-XXXXXX", tmp ? tmp : "/tmp");
    if (!mkdtemp(home) || chdir(home) != 0) return 1;
    r = TEST_MAIN(tests, argc, argv);
    if (chdir("/") == 0) sh("rm -rf %s", home);
    return r;
}

/* debian.c - Debian's own static libraries in one guest: libpng, zlib, zstd, libxml2, libcrypto, SQLite, Lua. */
#define HLSNAP_GUEST_LIBC
#define HLSNAP_IMPLEMENTATION
#include "hlsnap.h"
#include <lauxlib.h>
#include <libxml/parser.h>
#include <libxml/xpath.h>
#include <lualib.h>
#include <openssl/evp.h>
#include <openssl/rand.h>
#include <png.h>
#include <sqlite3.h>
#include <stdio.h>
#include <string.h>
#include <zstd.h>

static uint8_t pixels[64 * 64 * 4], packed[65536];

/* An image to PNG and back: bytes that came back as they went. */
static hlsnap_result png(hlsnap_call *call, void *user) {
    static uint8_t back[sizeof(pixels)];
    png_image image;
    png_alloc_size_t size = sizeof(packed);
    uint32_t i, same = 0;
    (void)user;
    for (i = 0; i < sizeof(pixels); i++) pixels[i] = (uint8_t)(i * i >> 7);
    memset(&image, 0, sizeof(image));
    image.version = PNG_IMAGE_VERSION;
    image.width = image.height = 64;
    image.format = PNG_FORMAT_RGBA;
    if (!png_image_write_to_memory(&image, packed, &size, 0, pixels, 0, NULL)) return hlsnap_call_fail(call, 1, image.message);
    memset(&image, 0, sizeof(image));
    image.version = PNG_IMAGE_VERSION;
    if (!png_image_begin_read_from_memory(&image, packed, size)) return hlsnap_call_fail(call, 2, image.message);
    image.format = PNG_FORMAT_RGBA;
    if (!png_image_finish_read(&image, NULL, back, 0, NULL)) return hlsnap_call_fail(call, 3, image.message);
    for (i = 0; i < sizeof(pixels); i++) same += back[i] == pixels[i];
    return hlsnap_call_return(call, hlsnap_u32(same));
}

static hlsnap_result zstd(hlsnap_call *call, void *user) {
    static uint8_t back[sizeof(pixels)];
    size_t n;
    (void)user;
    memset(pixels, 'z', sizeof(pixels));
    n = ZSTD_compress(packed, sizeof(packed), pixels, sizeof(pixels), 19);
    if (ZSTD_isError(n)) return hlsnap_call_fail(call, 1, ZSTD_getErrorName(n));
    n = ZSTD_decompress(back, sizeof(back), packed, n);
    return hlsnap_call_return(call, hlsnap_u32(n == sizeof(back) && !memcmp(back, pixels, n)));
}

static hlsnap_result xml(hlsnap_call *call, void *user) {
    const char *text = hlsnap_call_arg(call, 0).str;
    xmlDocPtr doc = xmlReadMemory(text, (int)strlen(text), "in.xml", NULL, XML_PARSE_NOERROR | XML_PARSE_NONET);
    xmlXPathContextPtr context = doc ? xmlXPathNewContext(doc) : NULL;
    xmlXPathObjectPtr found = context ? xmlXPathEvalExpression((const xmlChar *)"sum(//n)", context) : NULL;
    const double sum = found ? found->floatval : -1;
    (void)user;
    xmlXPathFreeObject(found);
    xmlXPathFreeContext(context);
    xmlFreeDoc(doc);
    return doc ? hlsnap_call_return(call, hlsnap_i32((int32_t)sum)) : hlsnap_call_fail(call, 1, "not XML");
}

static void hex(char *to, const uint8_t *from, size_t n) {
    size_t i;
    for (i = 0; i < n; i++) snprintf(to + 2 * i, 3, "%02x", from[i]);
}
static hlsnap_result sha256(hlsnap_call *call, void *user) {
    const hlsnap_value text = hlsnap_call_arg(call, 0);
    uint8_t digest[EVP_MAX_MD_SIZE];
    unsigned n = 0;
    char out[2 * EVP_MAX_MD_SIZE + 1] = "";
    (void)user;
    if (!EVP_Digest(text.str, text.size, digest, &n, EVP_sha256(), NULL)) return hlsnap_call_fail(call, 1, "EVP_Digest");
    hex(out, digest, n);
    return hlsnap_call_return(call, hlsnap_str(out));
}
/* Of a generator that was seeded before a snapshot, too, no two clones may get the same. */
static hlsnap_result random_bytes(hlsnap_call *call, void *user) {
    uint8_t bytes[16];
    char out[33] = "";
    (void)user;
    if (RAND_bytes(bytes, sizeof(bytes)) != 1) return hlsnap_call_fail(call, 1, "RAND_bytes");
    hex(out, bytes, sizeof(bytes));
    return hlsnap_call_return(call, hlsnap_str(out));
}

static hlsnap_result rest(hlsnap_call *call, void *user) {
    char out[200];
    lua_State *l = luaL_newstate();
    sqlite3 *db = NULL;
    sqlite3_stmt *s = NULL;
    int n = -1;
    (void)user;
    luaL_openlibs(l);
    if (luaL_dostring(l, "return ('%d'):format(6 * 7)")) return hlsnap_call_fail(call, 1, lua_tostring(l, -1));
    if (!sqlite3_open(":memory:", &db) && !sqlite3_prepare_v2(db, "select count(*) from (values(1),(2),(3))", -1, &s, NULL) &&
        sqlite3_step(s) == SQLITE_ROW)
        n = sqlite3_column_int(s, 0);
    snprintf(out, sizeof(out), "%s %d", lua_tostring(l, -1), n);
    sqlite3_finalize(s);
    sqlite3_close(db);
    lua_close(l);
    return hlsnap_call_return(call, hlsnap_str(out));
}

static const hlsnap_function exports[] = {
    {"png", "u32()", png, NULL}, {"zstd", "u32()", zstd, NULL},
    {"xml", "i32(str)", xml, NULL}, {"sha256", "str(str)", sha256, NULL},
    {"random", "str()", random_bytes, NULL}, {"rest", "str()", rest, NULL}};
static const hlsnap_module module = {exports, HLSNAP_COUNT(exports), NULL, 0};
HLSNAP_GUEST_MAIN(module);

int main(void) { hlsnap_rt_serve(); }

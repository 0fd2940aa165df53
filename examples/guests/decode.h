/* decode.h - a decoder by libpng, for guests/png.c and 07_decode.c. With bug set it is one that everybody has written once: it takes
   room for the rows by the header's width, but believes a comment in the file that says how wide they are. */
#include <png.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* Of text "width=N" in the file, N bytes go to each row, whatever room there is. */
static void decode_overflow(const uint8_t *file, size_t size, uint8_t *pixels) {
    static const char key[] = "width=";
    size_t i;
    for (i = 0; i + sizeof(key) + 8 < size; i++)
        if (memcmp(file + i, key, sizeof(key) - 1) == 0) memset(pixels, 0x41, strtoul((const char *)file + i + sizeof(key) - 1, NULL, 10));
}

/* False: no image. sum: FNV-1a of all pixels. */
static bool decode_png(const uint8_t *file, size_t size, bool bug, uint32_t *sum) {
    png_image image;
    uint8_t *pixels = NULL;
    size_t i, n;
    bool ok;
    memset(&image, 0, sizeof(image));
    image.version = PNG_IMAGE_VERSION;
    if (!png_image_begin_read_from_memory(&image, file, size)) return false;
    image.format = PNG_FORMAT_RGBA;
    n = PNG_IMAGE_SIZE(image);
    if (image.width < 4096 && image.height < 4096) pixels = (uint8_t *)malloc(n);
    if (pixels && bug) decode_overflow(file, size, pixels);
    ok = pixels && png_image_finish_read(&image, NULL, pixels, 0, NULL);
    png_image_free(&image);
    for (*sum = 2166136261u, i = 0; ok && i < n; i++) *sum = (*sum ^ pixels[i]) * 16777619u;
    free(pixels);
    return ok;
}

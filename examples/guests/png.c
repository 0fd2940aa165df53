/* png.c - Debian's libpng as a guest: decodes an image to RGBA and gives its size and a checksum of the pixels. Built by the cc: line
   of ../07_decode.c. decode.h is the decoder, which the host of the example has, too, to compare. */
#define HLSNAP_GUEST_LIBC
#define HLSNAP_IMPLEMENTATION
#include "hlsnap.h"
#include "decode.h"

static hlsnap_result decode(hlsnap_call *call, void *user) {
    const hlsnap_value image = hlsnap_call_arg(call, 0);
    uint32_t sum = 0;
    (void)user;
    if (!decode_png(image.bytes, image.size, hlsnap_call_arg(call, 1).as.b, &sum)) return hlsnap_call_fail(call, 1, "no image");
    return hlsnap_call_return(call, hlsnap_u32(sum));
}

static const hlsnap_function exports[] = {{"decode", "u32(bytes,bool)", decode, NULL}};
static const hlsnap_module module = {exports, HLSNAP_COUNT(exports), NULL, 0};
HLSNAP_GUEST_MAIN(module);

int main(void) { hlsnap_rt_serve(); }

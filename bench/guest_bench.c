/* guest_bench.c - the guest of bench.c: one export for each thing that is measured.

   cc: see ./run (freestanding, static) */
#define HLSNAP_IMPLEMENTATION
#include "hlsnap.h"

#include "compute.h"

#include <string.h>

enum { PAGE_WORDS = 4096 / 8, WINDOW_PAGES = 1024 };

static uint64_t *window;     /* WINDOW_PAGES pages of the heap, page-aligned */
static uint64_t counter = 1; /* a page of data that the first call writes */

static hlsnap_result on_setup(hlsnap_call *call, void *user) {
    uintptr_t p = (uintptr_t)hlsnap_rt_malloc((WINDOW_PAGES + 1) * 4096);
    uint64_t x = 0x9e3779b97f4a7c15;
    (void)user;
    if (!p) return hlsnap_call_fail(call, 1, "heap");
    window = (uint64_t *)((p + 4095) & ~(uintptr_t)4095);
    for (int i = 0; i < WINDOW_PAGES * PAGE_WORDS; i++) window[i] = x = compute_xorshift(x, 1);
    return HLSNAP_OK;
}

/* Bytes of the heap for the host to fill: their address, of a page. */
static hlsnap_result on_room(hlsnap_call *call, void *user) {
    const uintptr_t p = (uintptr_t)hlsnap_rt_malloc(hlsnap_call_arg(call, 0).as.u64 + 4096);
    (void)user;
    if (!p) return hlsnap_call_fail(call, 1, "heap");
    return hlsnap_call_return(call, hlsnap_u64((p + 4095) & ~(uintptr_t)4095));
}

static hlsnap_result on_nop(hlsnap_call *call, void *user) {
    (void)user;
    return hlsnap_call_return(call, hlsnap_i32(hlsnap_call_arg(call, 0).as.i32 + 1));
}

/* One word in each of n pages, every stride-th of the window. */
static void touch(uint32_t n, uint32_t stride) {
    counter++;
    for (uint32_t i = 0; i < n; i++) ((volatile uint64_t *)window)[(uint64_t)i * stride * PAGE_WORDS] = counter;
}

static hlsnap_result on_touch(hlsnap_call *call, void *user) {
    (void)user;
    touch(hlsnap_call_arg(call, 0).as.u32, 1);
    return HLSNAP_OK;
}

static hlsnap_result on_scatter(hlsnap_call *call, void *user) {
    (void)user;
    touch(hlsnap_call_arg(call, 0).as.u32, 2);
    return HLSNAP_OK;
}

static hlsnap_result on_hostcalls(hlsnap_call *call, void *user) {
    hlsnap_value out = hlsnap_u32(0);
    const uint32_t n = hlsnap_call_arg(call, 0).as.u32;
    (void)user;
    for (uint32_t i = 0; i < n; i++) {
        const hlsnap_value v = hlsnap_u32(i);
        const hlsnap_result r = hlsnap_rt_call("tick", &v, 1, &out, NULL);
        if (r) return r;
    }
    return hlsnap_call_return(call, out);
}

static hlsnap_result on_compute(hlsnap_call *call, void *user) {
    volatile uint64_t seed = 1;
    (void)user;
    return hlsnap_call_return(call, hlsnap_u64(compute_run(seed)));
}

/* Where the host's map lies. */
static hlsnap_result on_find_map(hlsnap_call *call, void *user) {
    (void)user;
    return hlsnap_call_return(call, hlsnap_u64((uintptr_t)hlsnap_rt_map("data", NULL)));
}

/* The sum of the first words of n pages. */
static hlsnap_result on_read_map(hlsnap_call *call, void *user) {
    const volatile uint64_t *at = (const volatile uint64_t *)(uintptr_t)hlsnap_call_arg(call, 0).as.u64;
    const uint32_t n = hlsnap_call_arg(call, 1).as.u32;
    uint64_t sum = 0;
    (void)user;
    for (uint32_t i = 0; i < n; i++) sum += at[(uint64_t)i * PAGE_WORDS];
    return hlsnap_call_return(call, hlsnap_u64(sum));
}

static hlsnap_result on_write_map(hlsnap_call *call, void *user) {
    volatile uint64_t *at = (volatile uint64_t *)(uintptr_t)hlsnap_call_arg(call, 0).as.u64;
    const uint32_t n = hlsnap_call_arg(call, 1).as.u32;
    (void)user;
    for (uint32_t i = 0; i < n; i++) at[(uint64_t)i * PAGE_WORDS] = i;
    return HLSNAP_OK;
}

static hlsnap_result on_echo(hlsnap_call *call, void *user) {
    (void)user;
    return hlsnap_call_return(call, hlsnap_call_arg(call, 0));
}

/* Gives bytes of the heap to the host, and takes as many of it: their first and last words, added. */
static hlsnap_result on_swap(hlsnap_call *call, void *user) {
    const uint64_t n = hlsnap_call_arg(call, 1).as.u64;
    const hlsnap_value v = hlsnap_bytes((const void *)(uintptr_t)hlsnap_call_arg(call, 0).as.u64, n);
    hlsnap_value out;
    uint64_t first, last;
    const hlsnap_result r = hlsnap_rt_call("swap", &v, 1, &out, NULL);
    (void)user;
    if (r) return r;
    if (out.size != n) return hlsnap_call_fail(call, 1, "size");
    memcpy(&first, out.bytes, 8);
    memcpy(&last, out.bytes + n - 8, 8);
    return hlsnap_call_return(call, hlsnap_u64(first + last));
}

/* An instance's memory: n pages, none of them zero, as an image, and where instances of it are made. */
static hlsnap_rt_image *image;
static uint8_t *pristine, *instance;
static hlsnap_result on_image_setup(hlsnap_call *call, void *user) {
    const uint32_t n = hlsnap_call_arg(call, 0).as.u32;
    const uintptr_t p = (uintptr_t)hlsnap_rt_malloc((2ull * n + 1) * 4096);
    (void)user;
    if (!p) return hlsnap_call_fail(call, 1, "heap");
    pristine = (uint8_t *)((p + 4095) & ~(uintptr_t)4095);
    instance = pristine + n * 4096ull;
    for (uint64_t i = 0; i < n * 4096ull; i++) pristine[i] = (uint8_t)(1 + i % 251);
    image = hlsnap_rt_image_new(pristine, n * 4096ull);
    return image ? HLSNAP_OK : hlsnap_call_fail(call, 2, "image");
}

/* Makes an instance of n pages, by a map or by a copy, and uses 16 pages all over it. */
static hlsnap_result on_image_use(hlsnap_call *call, void *user) {
    const uint64_t size = hlsnap_call_arg(call, 0).as.u32 * 4096ull;
    uint64_t sum = 0;
    (void)user;
    if (hlsnap_call_arg(call, 1).as.b) memcpy(instance, pristine, size);
    else if (hlsnap_rt_image_map(image, instance, 0, size)) return hlsnap_call_fail(call, 1, "map");
    for (uint64_t at = 8; at < size; at += size / 16) sum += instance[at]++;
    return hlsnap_call_return(call, hlsnap_u64(sum));
}

/* What a first call does at least: a page of data and a page of stack. */
static hlsnap_result on_first(hlsnap_call *call, void *user) {
    volatile uint64_t local = hlsnap_call_arg(call, 0).as.u64;
    (void)user;
    counter += local;
    return hlsnap_call_return(call, hlsnap_u64(counter));
}

static const hlsnap_function exports[] = {
    {"nop", "i32(i32)", on_nop, NULL},         {"touch", "void(u32)", on_touch, NULL},
    {"scatter", "void(u32)", on_scatter, NULL}, {"hostcalls", "u32(u32)", on_hostcalls, NULL},
    {"compute", "u64()", on_compute, NULL},    {"first", "u64(u64)", on_first, NULL},
    {"setup", "void()", on_setup, NULL},       {"room", "u64(u64)", on_room, NULL},
    {"find_map", "u64()", on_find_map, NULL},  {"read_map", "u64(u64,u32)", on_read_map, NULL},
    {"write_map", "void(u64,u32)", on_write_map, NULL}, {"echo", "bytes(bytes)", on_echo, NULL},
    {"swap", "u64(u64,u64)", on_swap, NULL},
    {"image_setup", "void(u32)", on_image_setup, NULL}, {"image_use", "u64(u32,bool)", on_image_use, NULL},
};
static const hlsnap_function imports[] = {{"tick", "u32(u32)", NULL, NULL}, {"swap", "bytes(bytes)", NULL, NULL}};
static const hlsnap_module module = {exports, HLSNAP_COUNT(exports), imports, HLSNAP_COUNT(imports)};
HLSNAP_GUEST_MAIN(module);

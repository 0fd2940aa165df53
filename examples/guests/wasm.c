/* wasm.c - guest of 08_wasm.c: a Wasm module that wasm2c made C of. The module has no way out of its memory but what it
   imports; should the compiler be wrong about that, it is still in a micro VM.

   Bounds of memory are compared, and calls are counted: what wasm2c does by default, catching SIGSEGV, is not in a guest. */
#define HLSNAP_GUEST_LIBC
#define HLSNAP_IMPLEMENTATION
#include "hlsnap.h"
#define WASM_RT_MEMCHECK_SIGNAL_HANDLER 0 /* as the module and wasm-rt-impl.c are compiled */
#include "wasm_mod.h"
#include "wasm-rt-impl.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static Z_mod_instance_t instance, first; /* first: as it was when it was made, but for its memory, of which there is an image */
static hlsnap_rt_image *image;
static const struct { const char *name; u32 (*run)(Z_mod_instance_t *, u32); } functions[] = {
    {"crc", Z_modZ_crc}, {"peek", Z_modZ_peek}, {"deep", Z_modZ_deep}, {"spin", Z_modZ_spin}};

/* The module's import host.allow is a host function. What the host refuses to answer is refused. */
u32 Z_hostZ_allow(struct Z_host_instance_t *host, u32 size, u32 nth) {
    hlsnap_value answer;
    (void)host;
    if (hlsnap_rt_call("allow", HLSNAP_ARGS(hlsnap_u32(size), hlsnap_u32(nth)), &answer, NULL)) return 0;
    return answer.as.u32;
}

/* Nothing of the module runs but in here: a trap comes back to the first line. */
static wasm_rt_trap_t run(u32 (*function)(Z_mod_instance_t *, u32), u32 arg, const hlsnap_value *request, u32 *out) {
    const wasm_rt_trap_t trap = (wasm_rt_trap_t)wasm_rt_impl_try();
    u32 at;
    if (trap) return trap;
    if (request->size) {                                   /* where to, the module says, which need not be true */
        at = Z_modZ_buffer(&instance);
        if (request->size > instance.w2c_memory.size || at > instance.w2c_memory.size - request->size)
            return WASM_RT_TRAP_OOB;
        memcpy(instance.w2c_memory.data + at, request->bytes, request->size);
    }
    *out = function(&instance, arg);
    return WASM_RT_TRAP_NONE;
}

static hlsnap_result call(hlsnap_call *c, void *user) { /* str(str "NAME NUMBER", bytes request) */
    const hlsnap_value line = hlsnap_call_arg(c, 0), request = hlsnap_call_arg(c, 1);
    char name[16];
    u32 arg = 0, out = 0;
    size_t i;
    wasm_rt_trap_t trap;
    (void)user;
    if (sscanf(line.str, "%15s %u", name, &arg) < 1) return hlsnap_call_fail(c, 100, "no function is named");
    for (i = 0; i < HLSNAP_COUNT(functions) && strcmp(functions[i].name, name) != 0;) i++;
    if (i == HLSNAP_COUNT(functions)) return hlsnap_call_fail(c, 100, "the module exports no such function");
    trap = run(functions[i].run, arg, &request, &out);
    return trap ? hlsnap_call_fail(c, trap, wasm_rt_strerror(trap)) : hlsnap_call_return_fmt(c, "%u", out);
}

static hlsnap_result load(hlsnap_call *c, void *user) { /* an instance; its start function runs */
    const wasm_rt_trap_t trap = (wasm_rt_trap_t)wasm_rt_impl_try();
    (void)user;
    uint8_t *pages;
    if (trap) return hlsnap_call_fail(c, trap, wasm_rt_strerror(trap));
    Z_mod_instantiate(&instance, NULL);
    pages = (uint8_t *)aligned_alloc(4096, instance.w2c_memory.size); /* calloc's begins somewhere in a page */
    if (!pages) return hlsnap_call_fail(c, 101, "no memory");
    memcpy(pages, instance.w2c_memory.data, instance.w2c_memory.size);
    free(instance.w2c_memory.data);
    instance.w2c_memory.data = pages;
    first = instance;
    image = hlsnap_rt_image_new(pages, first.w2c_memory.size);
    return image ? HLSNAP_OK : hlsnap_call_fail(c, 101, "no memory for an image");
}

/* Another instance in the place of this one: nothing is instantiated again, and of its memory nothing is copied but what it writes. */
static hlsnap_result renew(hlsnap_call *c, void *user) { /* void() */
    uint8_t *pages = instance.w2c_memory.data;
    (void)user;
    if (pages != first.w2c_memory.data) { /* it had grown, and was moved */
        free(pages);
        pages = (uint8_t *)aligned_alloc(4096, first.w2c_memory.size);
        first.w2c_memory.data = pages;
    }
    if (hlsnap_rt_image_map(image, pages, 0, first.w2c_memory.size)) return hlsnap_call_fail(c, 101, "no memory");
    instance = first;
    return HLSNAP_OK;
}

static const hlsnap_function exports[] = {{"load", "void()", load, NULL}, {"renew", "void()", renew, NULL},
                                          {"call", "str(str,bytes)", call, NULL}};
static const hlsnap_function imports[] = {{"allow", "u32(u32,u32)", NULL, NULL}};
static const hlsnap_module module = {exports, HLSNAP_COUNT(exports), imports, HLSNAP_COUNT(imports)};
HLSNAP_GUEST_MAIN(module);

int main(void) {
    wasm_rt_init();
    Z_mod_init_module();
    hlsnap_rt_serve();
}

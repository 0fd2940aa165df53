/* 08_wasm.c - Wasm modules from somebody else, a fresh instance for each request. You learn: guests that are Linux programs; a
   snapshot behind what is slow (load), a restore per request; a trap, an endless loop or a corrupt module is a typed error; and
   an instance by image (hlsnap_rt_image_map), for who wants many in one request.

   Two guests: the module made C by wasm2c and compiled, and an interpreter that loads any module while it runs. Needs wabt of
   Debian 12.

   cc: wat2wasm guests/wasm.wat -o wasm.wasm
   cc: wasm2c wasm.wasm -n mod -o wasm_mod.c
   cc: cc -O2 -fno-optimize-sibling-calls -frounding-math -fsignaling-nans -DWASM_RT_MEMCHECK_SIGNAL_HANDLER=0 -c wasm_mod.c
   cc: cc -O2 -DWASM_RT_MEMCHECK_SIGNAL_HANDLER=0 -c /usr/share/wabt/wasm2c/wasm-rt-impl.c
   cc: cc -O2 -static -I. -I.. -I/usr/share/wabt/wasm2c guests/wasm.c wasm_mod.o wasm-rt-impl.o -lm -o wasm.elf
   cc: c++ -O2 -static -I.. guests/wasm_any.cpp -lwabt -o wasm_any.elf
   cc: cc -std=c11 -O2 -I.. 08_wasm.c -o 08_wasm
   run: ./08_wasm wasm.elf wasm_any.elf wasm.wasm
   prints: crc 5 = 907060870
   prints: crc 21: HLSNAP_ERR_FUNCTION, call: Unreachable instruction executed
   prints: peek 4294967280: HLSNAP_ERR_FUNCTION, call: Out-of-bounds access in linear memory or a table
   prints: deep 1000000: HLSNAP_ERR_FUNCTION, call: Call stack exhausted
   prints: spin 0: HLSNAP_ERR_TIMEOUT, the sandbox is poisoned
   prints: crc 5 = 907060870
   prints: crc 5 again: HLSNAP_ERR_FUNCTION, call: Unreachable instruction executed
   prints: instance 1 by image: crc 5 = 907060870
   prints: instance 2 by image: crc 5 = 907060870
   prints: crc 5 = 907060870
   prints: crc 21: HLSNAP_ERR_FUNCTION, call: unreachable executed
   prints: peek 4294967280: HLSNAP_ERR_FUNCTION, call: out of bounds memory access: access at 4294967280+4 >= max value 1048576
   prints: deep 1000000: HLSNAP_ERR_FUNCTION, call: call stack exhausted
   prints: spin 0: HLSNAP_ERR_TIMEOUT, the sandbox is poisoned
   prints: crc 5 = 907060870
   prints: add 1.5 40.5 = 42.000000
   prints: a module cut off: HLSNAP_ERR_FUNCTION, load: invalid section size: extends past end */
#define HLSNAP_IMPLEMENTATION
#include "hlsnap.h"
#include "hlsnap_kvm.h"
#include <stdio.h>
#include <string.h>
#include <time.h>

enum { REQUESTS = 200 };

static const struct { const char *line, *request; } requests[] = {{"crc 5", "hello"}, {"crc 21", "more than it may have"},
    {"peek 4294967280", ""}, {"deep 1000000", ""}, {"spin 0", ""}, {"crc 5", "hello"}};
/* (module (func (export "add") (param f64 f64) (result f64) local.get 0 local.get 1 f64.add)) */
static const unsigned char add[] = "\0asm\1\0\0\0\1\7\1\x60\2\x7c\x7c\1\x7c\3\2\1\0\7\7\1\3"
                                   "add\0\0\x0a\x09\1\7\0\x20\0\x20\1\xa0\x0b";

/* What the module imports: it may have 16 bytes, and one request in its life. */
static hlsnap_result allow(hlsnap_call *call, void *user) {
    (void)user;
    return hlsnap_call_return(call, hlsnap_u32(hlsnap_call_arg(call, 0).as.u32 <= 16 && hlsnap_call_arg(call, 1).as.u32 == 1));
}

static hlsnap_result request(hlsnap_sandbox *sb, const char *line, const char *data, hlsnap_value *out, hlsnap_error *err) {
    hlsnap_invocation call = HLSNAP_ZERO;
    hlsnap_value args[2];
    hlsnap_result r = hlsnap_sandbox_find(sb, "call", "str(str,bytes)", &call.target, err);
    args[0] = hlsnap_str(line);
    args[1] = hlsnap_bytes(data, strlen(data));
    call.args = args;
    call.num_args = HLSNAP_COUNT(args);
    call.timeout_ns = 1000000000;
    return r ? r : hlsnap_sandbox_invoke(sb, &call, 1, out, NULL, err);
}

static double now_us(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

/* Each request in an instance as it was loaded; what one did to it, the next does not see. */
static hlsnap_result serve(hlsnap_sandbox *sb, hlsnap_snapshot *loaded, hlsnap_error *err) {
    hlsnap_value out;
    hlsnap_result r = HLSNAP_OK;
    double t0;
    size_t i;
    for (i = 0; i < HLSNAP_COUNT(requests) && !r; i++) {
        r = request(sb, requests[i].line, requests[i].request, &out, err);
        if (!r) printf("%s = %s\n", requests[i].line, out.str);
        else
            printf("%s: %s, %s\n", requests[i].line, hlsnap_result_name(r),
                   hlsnap_sandbox_get_state(sb) == HLSNAP_READY ? err->msg : "the sandbox is poisoned");
        r = hlsnap_sandbox_restore(sb, loaded, err);
    }
    t0 = now_us();
    for (i = 0; i < REQUESTS && !r; i++) {
        r = request(sb, "crc 5", "hello", &out, err);
        if (!r) r = hlsnap_sandbox_restore(sb, loaded, err);
    }
    if (!r) fprintf(stderr, "%.1f us a request, restore included\n", (now_us() - t0) / REQUESTS);
    return r;
}

/* Instances one after the other in one request's time: each has its request left, which the module counts. */
static hlsnap_result instances(hlsnap_sandbox *sb, hlsnap_error *err) {
    hlsnap_value out;
    hlsnap_result r = request(sb, "crc 5", "hello", &out, err);
    double t0;
    int i;
    if (r) return r;
    r = request(sb, "crc 5", "hello", &out, err);
    printf("crc 5 again: %s, %s\n", hlsnap_result_name(r), err->msg);
    for (i = 1, r = HLSNAP_OK; i <= 2 && !r; i++) {
        r = hlsnap_sandbox_call(sb, "renew", HLSNAP_NO_ARGS, NULL, err);
        if (!r) r = request(sb, "crc 5", "hello", &out, err);
        if (!r) printf("instance %d by image: crc 5 = %s\n", i, out.str);
    }
    t0 = now_us();
    for (i = 0; i < REQUESTS && !r; i++) r = hlsnap_sandbox_call(sb, "renew", HLSNAP_NO_ARGS, NULL, err);
    if (!r) fprintf(stderr, "%.1f us an instance by image\n", (now_us() - t0) / REQUESTS);
    return r;
}

/* The interpreter goes on to another module; what is none is refused. */
static hlsnap_result another(hlsnap_sandbox *sb, hlsnap_error *err) {
    hlsnap_value out;
    hlsnap_result r = hlsnap_sandbox_call(sb, "unload", HLSNAP_NO_ARGS, NULL, err);
    if (!r) r = hlsnap_sandbox_call(sb, "load", HLSNAP_ARGS(hlsnap_bytes(add, sizeof(add) - 1)), NULL, err);
    if (!r) r = request(sb, "add 1.5 40.5", "", &out, err);
    if (r) return r;
    printf("add 1.5 40.5 = %s\n", out.str);
    r = hlsnap_sandbox_call(sb, "load", HLSNAP_ARGS(hlsnap_bytes(add, sizeof(add) - 2)), NULL, err);
    printf("a module cut off: %s, %s\n", hlsnap_result_name(r), r ? err->msg : "");
    return r == HLSNAP_ERR_FUNCTION ? HLSNAP_OK : r;
}

static hlsnap_result tour(const char *elf, const void *module, size_t size, hlsnap_error *err) {
    static const hlsnap_function functions[] = {{"allow", "u32(u32,u32)", allow, NULL}};
    hlsnap_guest_desc guest = HLSNAP_ZERO;
    hlsnap_sandbox_desc desc = HLSNAP_ZERO;
    hlsnap_sandbox *sb = NULL;
    hlsnap_snapshot *loaded = NULL;
    hlsnap_result r;
    double t0;
    guest.path = elf;
    guest.mailbox_size = 1u << 20;                         /* half of it for a module */
    desc.hypervisor = hlsnap_kvm();
    desc.functions = functions;
    desc.num_functions = HLSNAP_COUNT(functions);
    desc.timeout_ns = 10000000000;                         /* of the others: to load runs code of the module, too */
    r = hlsnap_sandbox_create(&guest, &desc, &sb, err);
    t0 = now_us();
    if (!r && module) r = hlsnap_sandbox_call(sb, "load", HLSNAP_ARGS(hlsnap_bytes(module, size)), NULL, err);
    else if (!r) r = hlsnap_sandbox_call(sb, "load", HLSNAP_NO_ARGS, NULL, err);
    if (!r) fprintf(stderr, "%s: %.1f us to load\n", elf, now_us() - t0);
    if (!r) r = hlsnap_sandbox_snapshot(sb, &loaded, err);
    if (!r) r = serve(sb, loaded, err);
    if (!r) r = module ? another(sb, err) : instances(sb, err);
    hlsnap_snapshot_release(loaded);
    hlsnap_sandbox_destroy(sb);
    return r;
}

int main(int argc, char **argv) {
    static unsigned char module[256 * 1024];
    hlsnap_error err = HLSNAP_ZERO;
    hlsnap_result r = HLSNAP_ERR_ARG;
    FILE *f = argc > 3 ? fopen(argv[3], "rb") : NULL;
    size_t size = f ? fread(module, 1, sizeof(module), f) : 0;
    if (f) fclose(f);
    snprintf(err.msg, sizeof(err.msg), "usage: 08_wasm COMPILED.elf INTERPRETER.elf MODULE.wasm");
    if (size) r = tour(argv[1], NULL, 0, &err);
    if (!r) r = tour(argv[2], module, size, &err);
    if (r) fprintf(stderr, "%s: %s\n", hlsnap_result_name(r), err.msg);
    return r == HLSNAP_OK ? 0 : r == HLSNAP_ERR_HYPERVISOR ? 77 : 1;
}

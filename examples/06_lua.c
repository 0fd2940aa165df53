/* 06_lua.c - untrusted Lua scripts, one after another, none of which sees what another did. You learn: real code as a guest
   (guests/lua.c: Lua as Debian builds it), a snapshot behind the slow part, a restore for each request, a function of the host
   that scripts call, and limits of time and memory. Needs liblua5.4-dev.

   cc: gcc -O2 -static -I.. guests/lua.c -llua5.4 -lm -o lua.elf
   cc: cc -std=c11 -O2 -I.. 06_lua.c -o 06_lua
   run: ./06_lua
   prints: shopping: 8.5
   prints: hello from a script
   prints: leaving something: left
   prints: finding it: nil
   prints: a mistake: HLSNAP_ERR_FUNCTION, run: [string "return nothing.here"]:1: attempt to index a nil value (global 'nothing')
   prints: the host's no: HLSNAP_ERR_FUNCTION, run: [string "prelude"]:4: no such thing: gold
   prints: for ever: HLSNAP_ERR_TIMEOUT
   prints: all memory: HLSNAP_ERR_FUNCTION, run: not enough memory
   prints: leaving: HLSNAP_ERR_EXIT, status 3
   prints: shopping again: 8.5 */
#define HLSNAP_IMPLEMENTATION
#include "hlsnap.h"
#include "hlsnap_kvm.h"
#include <stdio.h>
#include <string.h>

static const char prelude[] = /* whatever is slow to load stands here: it is run once */
    "return assert(load([[\n"
    "function total(list)\n"
    "    local sum = 0\n"
    "    for name, n in pairs(list) do\n"
    "        sum = sum + n * price(name)\n"
    "    end\n"
    "    return sum\n"
    "end]], 'prelude'))()";
static const struct { const char *what, *script; } requests[] = {
    {"shopping", "return total({tea = 2, milk = 3})"},
    {"leaving something", "print('hello from a script') something = 'left' return something"},
    {"finding it", "return something"},
    {"a mistake", "return nothing.here"},
    {"the host's no", "return total({gold = 1})"},
    {"for ever", "while true do pcall(error) end"},
    {"all memory", "local t = {} while true do t[#t + 1] = ('x'):rep(10000, #t) end"},
    {"leaving", "os.exit(3)"},
    {"shopping again", "return total({tea = 2, milk = 3})"},
};

static hlsnap_result price(hlsnap_call *call, void *user) {
    const char *name = hlsnap_call_arg(call, 0).str;
    (void)user;
    if (strcmp(name, "tea") == 0) return hlsnap_call_return(call, hlsnap_f64(2));
    if (strcmp(name, "milk") == 0) return hlsnap_call_return(call, hlsnap_f64(1.5));
    return hlsnap_call_fail(call, 404, "no such thing: gold");
}
static const hlsnap_function functions[] = {{"price", "f64(str)", price, NULL}};

static void print_line(int level, const char *text, size_t size, void *user) { /* what scripts print */
    (void)level, (void)size, (void)user;
    puts(text);
}

int main(void) {
    hlsnap_guest_desc guest = HLSNAP_ZERO;
    hlsnap_sandbox_desc desc = HLSNAP_ZERO;
    hlsnap_sandbox *loader = NULL, *sb = NULL;
    hlsnap_snapshot *ready = NULL;
    hlsnap_value out;
    hlsnap_error err;
    hlsnap_result r;
    size_t i;
    guest.path = "lua.elf";
    guest.heap_size = 8u << 20;           /* the limit of memory */
    desc.hypervisor = hlsnap_kvm();
    desc.functions = functions;
    desc.num_functions = HLSNAP_COUNT(functions);
    desc.log = print_line;
    r = hlsnap_sandbox_create(&guest, &desc, &loader, &err);
    if (!r) r = hlsnap_sandbox_call(loader, "run", HLSNAP_ARGS(hlsnap_str(prelude)), NULL, &err);
    if (!r) r = hlsnap_sandbox_snapshot(loader, &ready, &err);
    hlsnap_sandbox_destroy(loader);
    desc.timeout_ns = 3000000000;         /* the limit of time, three seconds a call: machines stutter */
    if (!r) r = hlsnap_sandbox_create_from(ready, &desc, &sb, &err);
    for (i = 0; i < HLSNAP_COUNT(requests) && !r; i++) {
        r = hlsnap_sandbox_call(sb, "run", HLSNAP_ARGS(hlsnap_str(requests[i].script)), &out, &err);
        if (!r) printf("%s: %s\n", requests[i].what, out.str);
        else if (r == HLSNAP_ERR_EXIT) printf("%s: %s, status %d\n", requests[i].what, hlsnap_result_name(r), err.user_code);
        else printf("%s: %s%s%s\n", requests[i].what, hlsnap_result_name(r), r == HLSNAP_ERR_FUNCTION ? ", " : "",
                    r == HLSNAP_ERR_FUNCTION ? err.msg : "");
        r = hlsnap_sandbox_restore(sb, ready, &err);        /* as if it had never run, whatever it did */
    }
    hlsnap_snapshot_release(ready);
    hlsnap_sandbox_destroy(sb);
    if (!r) return 0;
    fprintf(stderr, "%s: %s\n", hlsnap_result_name(r), err.msg);
    return r == HLSNAP_ERR_HYPERVISOR ? 77 : 1;
}

/* greet.c - a guest built on its own: keeps state between calls, logs, fails in a controlled way and in an uncontrolled one.
   Built by the cc: line of ../02_guest_elf.c. */
#define HLSNAP_IMPLEMENTATION
#include "hlsnap.h"

static char *names[100]; /* everyone greeted so far, on the guest's heap */
static uint32_t num_names;

static hlsnap_result greet(hlsnap_call *call, void *user) {
    const hlsnap_value name = hlsnap_call_arg(call, 0);
    hlsnap_value title;
    hlsnap_error err;
    (void)user;
    if (name.size == 0) return hlsnap_call_fail(call, 42, "nobody to greet");
    if (hlsnap_rt_call("title_of", HLSNAP_ARGS(name), &title, &err)) return hlsnap_call_fail(call, err.user_code, err.msg);
    if (num_names == HLSNAP_COUNT(names)) hlsnap_rt_abort(7, "too many people");
    names[num_names] = (char *)hlsnap_rt_malloc(name.size + 1);
    if (!names[num_names]) return hlsnap_call_fail(call, 1, "out of memory");
    hlsnap_rt_snprintf(names[num_names], name.size + 1, "%s", name.str);
    num_names++;
    hlsnap_rt_log(3, "greeting number %u", num_names);
    return hlsnap_call_return_fmt(call, "Hello, %s %s!", title.str, name.str);
}

static hlsnap_result greeted(hlsnap_call *call, void *user) {
    (void)user;
    return hlsnap_call_return(call, hlsnap_u32(num_names));
}

static hlsnap_result crash(hlsnap_call *call, void *user) {
    volatile int *nowhere = (volatile int *)user;
    *nowhere = 1;
    return hlsnap_call_return(call, hlsnap_bool(true));
}

static const hlsnap_function exports[] = {
    {"greet", "str(str)", greet, NULL}, {"greeted", "u32()", greeted, NULL}, {"crash", "bool()", crash, NULL}};
static const hlsnap_function imports[] = {{"title_of", "str(str)", NULL, NULL}};
static const hlsnap_module module = {exports, HLSNAP_COUNT(exports), imports, HLSNAP_COUNT(imports)};
HLSNAP_GUEST_MAIN(module);

/* glue.c - the C half of a guest in Rust or Go: exports whose functions the other half has, by their C names. */
#define HLSNAP_GUEST_LIBC
#define HLSNAP_IMPLEMENTATION
#include "hlsnap.h"

extern void program_text(const char *input, char *to, size_t cap);
extern int32_t program_number(int32_t what);
extern void program_serve(void);

static hlsnap_result text(hlsnap_call *call, void *user) {
    char to[1000] = "";
    (void)user;
    program_text(hlsnap_call_arg(call, 0).str, to, sizeof(to));
    return hlsnap_call_return(call, hlsnap_str(to));
}
static hlsnap_result number(hlsnap_call *call, void *user) {
    (void)user;
    return hlsnap_call_return(call, hlsnap_i32(program_number(hlsnap_call_arg(call, 0).as.i32)));
}
static const hlsnap_function exports[] = {{"text", "str(str)", text, NULL}, {"number", "i32(i32)", number, NULL}};
static const hlsnap_module module = {exports, HLSNAP_COUNT(exports), NULL, 0};
HLSNAP_GUEST_MAIN(module);

void program_serve(void) { hlsnap_rt_serve(); }

/* guest_echo.c - a small separately built guest with a bit of everything an ELF can hold, for tests that need a file.
   cc: cc -DHLSNAP_GUEST -ffreestanding -nostdlib -static -I.. guest_echo.c -o guest_echo */
#define HLSNAP_IMPLEMENTATION
#include "hlsnap.h"

static int counter = 5;
static int cleared[5000];
static __thread int per_thread = 7;

static hlsnap_result echo(hlsnap_call *call, void *user) {
    (void)user;
    return hlsnap_call_return(call, hlsnap_call_arg(call, 0));
}
static hlsnap_result count(hlsnap_call *call, void *user) {
    (void)user;
    cleared[counter % 5000]++;
    return hlsnap_call_return_fmt(call, "%d %d %d", counter++, per_thread++, cleared[0]);
}
static const hlsnap_function exports[] = {{"echo", "str(str)", echo, NULL}, {"count", "str()", count, NULL}};
static const hlsnap_module module = {exports, HLSNAP_COUNT(exports), NULL, 0};
HLSNAP_GUEST_MAIN(module);

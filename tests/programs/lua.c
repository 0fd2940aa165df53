/* lua.c - Lua as a linked guest: untrusted scripts, a state that a prelude made. */
#define HLSNAP_GUEST_LIBC
#define HLSNAP_IMPLEMENTATION
#include "hlsnap.h"
#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>

static lua_State *state;

/* Runs a script: what it returns, as text. An error of the script is the call's. */
static hlsnap_result run(hlsnap_call *call, void *user) {
    hlsnap_result r;
    (void)user;
    lua_settop(state, 0);
    if (luaL_dostring(state, hlsnap_call_arg(call, 0).str)) return hlsnap_call_fail(call, 1, lua_tostring(state, -1));
    r = hlsnap_call_return(call, hlsnap_str(lua_gettop(state) ? luaL_tolstring(state, 1, NULL) : "nothing"));
    lua_settop(state, 0);
    return r;
}

static const hlsnap_function exports[] = {{"run", "str(str)", run, NULL}};
static const hlsnap_module module = {exports, HLSNAP_COUNT(exports), NULL, 0};
HLSNAP_GUEST_MAIN(module);

int main(void) {
    state = luaL_newstate();
    luaL_openlibs(state);
    hlsnap_rt_serve();
}

/* lua.c - Lua 5.4 as a guest: an ordinary program, linked with Debian's liblua5.4.a and its libc. `run` runs a script; what it
   returns is the result, as text. Scripts have os and io, too: what these do, they do in here. (package is not there: it loads shared
   objects, which no static program can.)
   Built by the cc: line of ../06_lua.c. */
#define HLSNAP_GUEST_LIBC
#define HLSNAP_IMPLEMENTATION
#include "hlsnap.h"
#include <lua5.4/lauxlib.h>
#include <lua5.4/lua.h>
#include <lua5.4/lualib.h>

static lua_State *state;

/* price(name), for scripts: asks the host. */
static int price(lua_State *lua) {
    hlsnap_value out;
    hlsnap_error err;
    if (hlsnap_rt_call("price", HLSNAP_ARGS(hlsnap_str(luaL_checkstring(lua, 1))), &out, &err))
        return luaL_error(lua, "%s", err.msg);
    lua_pushnumber(lua, out.as.f64);
    return 1;
}

static hlsnap_result run(hlsnap_call *call, void *user) {
    (void)user;
    lua_settop(state, 0);
    if (luaL_loadstring(state, hlsnap_call_arg(call, 0).str) || lua_pcall(state, 0, 1, 0))
        return hlsnap_call_fail(call, 1, luaL_tolstring(state, -1, NULL));
    return hlsnap_call_return(call, hlsnap_str(luaL_tolstring(state, -1, NULL)));
}

static const hlsnap_function exports[] = {{"run", "str(str)", run, NULL}};
static const hlsnap_function imports[] = {{"price", "f64(str)", NULL, NULL}};
static const hlsnap_module module = {exports, HLSNAP_COUNT(exports), imports, HLSNAP_COUNT(imports)};
HLSNAP_GUEST_MAIN(module);

int main(void) {
    static const luaL_Reg libraries[] = {{LUA_GNAME, luaopen_base}, {LUA_TABLIBNAME, luaopen_table}, {LUA_STRLIBNAME, luaopen_string},
                                         {LUA_MATHLIBNAME, luaopen_math}, {LUA_UTF8LIBNAME, luaopen_utf8}, {LUA_OSLIBNAME, luaopen_os},
                                         {LUA_IOLIBNAME, luaopen_io}, {LUA_COLIBNAME, luaopen_coroutine}};
    size_t i;
    state = luaL_newstate();
    for (i = 0; i < HLSNAP_COUNT(libraries); i++) luaL_requiref(state, libraries[i].name, libraries[i].func, 1);
    lua_register(state, "price", price);
    hlsnap_rt_serve();
}

/* state: the sandbox. What a script can reach is what was put into its environment; memory and instructions are bounded, so that
 * the worst script ends with a message and not with the machine. */
#include "lua/state.h"

#include <string.h>

enum { MEMORY_LIMIT = 1 << 30 };

struct script *state_script(lua_State *L)
{
    return *(struct script **)lua_getextraspace(L);
}

/* Through mem_*, so that "no allocation in a training step" is counted for Lua too. */
static void *allocate(void *ud, void *p, size_t old, size_t want)
{
    struct script *s = ud;
    if (!p) old = 0; /* then it is a type tag */
    if (want > old && s->bytes - old + want > s->limit) return NULL;
    s->bytes = s->bytes - old + want;
    if (!want) {
        mem_free(p);
        return NULL;
    }
    return p ? mem_grow(p, old, want) : mem_alloc(want);
}

/* Once spent, every further instruction raises: a script cannot pcall its way on. */
static void hook(lua_State *L, lua_Debug *ar)
{
    struct script *s = state_script(L);
    s->budget -= lua_gethookcount(L);
    if (s->budget > 0) return;
    lua_sethook(L, hook, LUA_MASKCOUNT, 1);
    lua_getinfo(L, "Sl", ar);
    luaL_error(L, "%s:%d: more than %d million instructions: does this come to an end?", ar->short_src, ar->currentline,
               (int)(s->allowed / 1000000));
}

static bool is_script_frame(const struct script *s, const lua_Debug *ar)
{
    return ar->source[0] == '@' && s->path && !strcmp(ar->source + 1, s->path);
}

/* Message handler: adds the traceback where the error is inside a function of the script, not where the main chunk alone tells it. */
static int with_traceback(lua_State *L)
{
    struct script *s = state_script(L);
    lua_Debug ar;
    bool deep = s->in_design;
    const char *msg = lua_tostring(L, 1);
    if (!msg) msg = lua_pushfstring(L, "error object is a %s value", luaL_typename(L, 1));
    for (int level = 1; lua_getstack(L, level, &ar); level++) {
        lua_getinfo(L, "S", &ar);
        if (!is_script_frame(s, &ar)) continue;
        deep = deep || strcmp(ar.what, "main");
        break;
    }
    if (deep) luaL_traceback(L, L, msg, 1);
    else lua_pushstring(L, msg);
    return 1;
}

err_t state_call(struct script *s, int nargs, int nres, int64_t budget)
{
    lua_State *L = s->L;
    int at = lua_gettop(L) - nargs;
    lua_pushcfunction(L, with_traceback);
    lua_insert(L, at);
    int64_t outer_budget = s->budget, outer_allowed = s->allowed; /* a host function may call back into Lua */
    lua_Hook outer = lua_gethook(L);
    s->budget = s->allowed = s->host.max_steps && s->host.max_steps < budget ? s->host.max_steps : budget;
    s->host_err = 0;
    lua_sethook(L, hook, LUA_MASKCOUNT, SCRIPT_HOOK_STEP);
    int rc = lua_pcall(L, nargs, nres, at);
    s->budget = outer_budget;
    s->allowed = outer_allowed;
    lua_sethook(L, outer, outer ? LUA_MASKCOUNT : 0, outer ? SCRIPT_HOOK_STEP : 0);
    lua_remove(L, at);
    if (rc == LUA_OK) return ERR_OK;
    err_t err = s->host_err ? s->host_err : ERR_USAGE;
    if (rc == LUA_ERRMEM) err = fail(err, "%s: more than %zu MiB of memory", s->path, s->limit >> 20);
    else err = fail(err, "%s", lua_tostring(L, -1));
    lua_settop(L, at - 1);
    return err;
}

err_t state_load(struct script *s, const char *text, size_t n, const char *chunk, int env)
{
    lua_State *L = s->L;
    env = lua_absindex(L, env);
    if (luaL_loadbufferx(L, text, n, chunk, "t") != LUA_OK) {
        err_t err = fail(ERR_USAGE, "%s", lua_tostring(L, -1));
        lua_pop(L, 1);
        return err;
    }
    lua_pushvalue(L, env);
    lua_setupvalue(L, -2, 1);
    return ERR_OK;
}

void state_push_module(lua_State *L, const char *name)
{
    lua_getfield(L, LUA_REGISTRYINDEX, "ect.modules");
    lua_getfield(L, -1, name);
    lua_remove(L, -2);
}

/* require of the library: embedded files only. */
static int require(lua_State *L)
{
    const char *name = luaL_checkstring(L, 1);
    lua_getfield(L, LUA_REGISTRYINDEX, "ect.modules");
    if (lua_getfield(L, -1, name) != LUA_TNIL) return 1;
    lua_pop(L, 1);
    const char *file =
        lua_pushfstring(L, "lua/%s.lua", strcmp(name, "ect") ? luaL_gsub(L, name, ".", "/") : "ect/init");
    const struct embed *e = embed_find(file);
    if (!e) return luaL_error(L, "no library '%s'", name);
    const char *chunk = lua_pushfstring(L, "@%s", file);
    if (luaL_loadbufferx(L, e->data, e->size, chunk, "t") != LUA_OK) return lua_error(L);
    lua_call(L, 0, 1);
    lua_pushvalue(L, -1);
    lua_setfield(L, 2, name);
    return 1;
}

/* Standard tables minus whatever reaches outside: no io, os, debug, package, coroutine, load; no binary code. */
static int open_libraries(lua_State *L)
{
    static const char *const removed[] = {"dofile", "loadfile", "load", "collectgarbage", "warn"};
    luaL_requiref(L, LUA_GNAME, luaopen_base, 1);
    luaL_requiref(L, LUA_STRLIBNAME, luaopen_string, 1);
    lua_pushnil(L);
    lua_setfield(L, -2, "dump");
    luaL_requiref(L, LUA_TABLIBNAME, luaopen_table, 1);
    luaL_requiref(L, LUA_MATHLIBNAME, luaopen_math, 1);
    luaL_requiref(L, LUA_UTF8LIBNAME, luaopen_utf8, 1);
    for (size_t i = 0; i < ARRAY_LEN(removed); i++) {
        lua_pushnil(L);
        lua_setglobal(L, removed[i]);
    }
    lua_pushliteral(L, ""); /* the metatable of strings is not for scripts to see */
    lua_getmetatable(L, -1);
    lua_pushboolean(L, 0);
    lua_setfield(L, -2, "__metatable");
    lua_newtable(L);
    lua_setfield(L, LUA_REGISTRYINDEX, "ect.modules");
    lua_pushcfunction(L, require);
    lua_setglobal(L, "require");
    host_push(L);
    lua_setglobal(L, "host");
    lua_pushcfunction(L, require);
    lua_pushliteral(L, "ect");
    lua_call(L, 1, 0);
    return 0;
}

err_t state_open(struct script *s)
{
    s->limit = s->host.max_bytes ? s->host.max_bytes : MEMORY_LIMIT;
    s->L = lua_newstate(allocate, s);
    if (!s->L) return fail(ERR_FAILED, "no Lua state");
    *(struct script **)lua_getextraspace(s->L) = s;
    lua_pushcfunction(s->L, open_libraries);
    err_t err = state_call(s, 0, 0, INT64_MAX);
    if (err) err = fail_in(ERR_FAILED, "the embedded Lua library");
    return err;
}

void state_close(struct script *s)
{
    if (s->L) lua_close(s->L);
    s->L = NULL;
    source_free(s->tokens);
    s->tokens = NULL;
}

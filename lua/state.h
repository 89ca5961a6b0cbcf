/* state: one sandboxed Lua state and what the library needs from C. Internal to lua/; the public door is script.h.
 *
 * Two environments share the state. The library (lua/ect/ *.lua) sees the standard tables and `host`, the functions registered in
 * hostlib.c. A script sees only what sandbox.lua hands out: read-only, without addresses, clocks or unordered iteration. */
#ifndef LUA_STATE_H
#define LUA_STATE_H

#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>

#include "lua/script.h"
#include "lua/source.h"

enum { SCRIPT_HOOK_STEP = 10000 }; /* VM instructions between two looks at the budget */

struct script {
    lua_State *L;
    struct arena mem; /* cells, texts: live as long as the script */
    char *path, *source;
    struct source *tokens; /* of source, made when first asked for */
    struct script_host host;
    const char *const *sets; /* only during script_open */
    int nsets;
    struct spec defaults;

    size_t bytes, limit;     /* held by Lua; at most */
    int64_t budget, allowed; /* VM instructions left, and given */
    bool in_design;          /* a design function is running: no randomness */
    err_t host_err;          /* class of the failure that a host function raised, 0 if none */

    int nsweeps, ncells;
    struct script_sweep *sweeps;
    struct script_cell **cells; /* made when first asked for */
    struct sweep_data {
        struct spec base;
        int nevals;
        struct spec *evals;
    } * sweep_data;
    const char **hashes;  /* config hash per cell, made when first asked for */
    struct bound **bound; /* design functions per cell, likewise */
};

/* Makes s->L with libraries, host functions and the embedded library; the table of lua/ect/init.lua is left in registry field "ect". */
err_t state_open(struct script *s) MUST_USE;
void state_close(struct script *s);
struct script *state_script(lua_State *L);

/* Calls the function under nargs arguments on the stack, leaving nres results; errors come back with file, line and (inside a function)
 * traceback. budget: VM instructions allowed. */
err_t state_call(struct script *s, int nargs, int nres, int64_t budget) MUST_USE;
/* Loads text (never binary code) as a chunk on the stack, with env (stack index) as its environment. */
err_t state_load(struct script *s, const char *text, size_t n, const char *chunk, int env) MUST_USE;
/* Pushes the module of the embedded library (registry cache). */
void state_push_module(lua_State *L, const char *name);

/* hostlib.c: pushes the table of C functions for the library. */
void host_push(lua_State *L);
/* The spec that a table key -> canonical text at idx describes, over *s. Raises a Lua error. */
void host_spec_from(lua_State *L, int idx, struct spec *s);
double normal_quantile(double u); /* z with Phi(z) = u, absolute error about 1e-16 + 1e-16 |z| */

#endif

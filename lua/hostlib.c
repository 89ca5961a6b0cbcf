/* hostlib: the C functions that the Lua library is written with. None of them reaches scripts as such. */
#include "lua/state.h"

#include <math.h>
#include <string.h>

/* Newton-Halley on libm's erfc from a rough start: the accuracy is erfc's, and no table of coefficients has to be believed. */
double normal_quantile(double u)
{
    if (!(u > 0 && u < 1)) return u == 0 ? -INFINITY : u == 1 ? INFINITY : NAN;
    double p = u < 0.5 ? u : 1 - u; /* exact: u in [1/2, 1) */
    double s = sqrt(-2 * log(p)), z = 0;
    if (p > 0.4) z = (p - 0.5) * 2.5066282746310002;
    else z = -(s - (2.515517 + s * (0.802853 + s * 0.010328)) / (1 + s * (1.432788 + s * (0.189269 + s * 0.001308))));
    for (int i = 0; i < 4; i++) {
        /* (Phi(z) - p) / phi(z); erfc(x) exp(x^2) stays finite where both ends underflow */
        double density = exp(-0.5 * z * z) * 0.39894228040143268;
        if (density == 0) break;
        double e = (0.5 * erfc(-z * 0.70710678118654752) - p) / density;
        z -= e / (1 + 0.5 * z * e);
        if (fabs(e) <= 1e-17 * fabs(z)) break;
    }
    return u < 0.5 ? z : -z;
}

/* Standard normal distribution function. */
static int cdf(lua_State *L)
{
    lua_pushnumber(L, 0.5 * erfc(-luaL_checknumber(L, 1) * 0.70710678118654752));
    return 1;
}

static int quantile(lua_State *L)
{
    lua_pushnumber(L, normal_quantile(luaL_checknumber(L, 1)));
    return 1;
}

/* host.num(x): canonical text; whole numbers and floats of equal value alike. */
static int num(lua_State *L)
{
    char buf[NUM_TEXT];
    double v = luaL_checknumber(L, 1);
    lua_pushstring(L, num_text(buf, v == 0 ? 0 : v));
    return 1;
}

static int sha256(lua_State *L)
{
    size_t n;
    const char *p = luaL_checklstring(L, 1, &n);
    char hex[SHA256_TEXT];
    sha256_text(p, n, hex);
    lua_pushstring(L, hex);
    return 1;
}

/* host.fields(): every setting of spec.def, in its order. */
static int fields(lua_State *L)
{
    static const char *const classes[] = {"train", "eval", "exec"};
    static const char *const types[] = {"int", "real", "bool", "text", "ints", "reals", "texts", "fn"};
    struct script *s = state_script(L);
    lua_createtable(L, spec_nfields, 0);
    for (int i = 0; i < spec_nfields; i++) {
        const struct spec_field *f = &spec_fields[i];
        struct text def = {0};
        spec_get(&s->defaults, f, &def);
        lua_createtable(L, 0, 5);
        lua_pushstring(L, f->key);
        lua_setfield(L, -2, "key");
        lua_pushstring(L, classes[f->class]);
        lua_setfield(L, -2, "class");
        lua_pushstring(L, types[f->type]);
        lua_setfield(L, -2, "type");
        lua_pushstring(L, text_str(&def));
        lua_setfield(L, -2, "default");
        lua_pushstring(L, f->range);
        lua_setfield(L, -2, "range");
        lua_rawseti(L, -2, i + 1);
        text_done(&def);
    }
    return 1;
}

/* host.networks() -> names of the networks that stand for settings. */
static int networks(lua_State *L)
{
    lua_newtable(L);
    for (int i = 0; spec_preset_name(i); i++) {
        lua_pushstring(L, spec_preset_name(i));
        lua_rawseti(L, -2, i + 1);
    }
    return 1;
}

/* host.network(name) -> table key -> canonical text of all settings of a network, or nil. */
static int network(lua_State *L)
{
    struct spec *s = lua_newuserdatauv(L, sizeof *s, 0);
    spec_defaults(s);
    if (!spec_preset(s, luaL_checkstring(L, 1))) return 0;
    lua_newtable(L);
    for (int i = 0; i < spec_nfields; i++) {
        const struct spec_field *f = &spec_fields[i];
        struct text t = {0};
        if (strcmp(f->key, "net") && strncmp(f->key, "net.", 4)) continue;
        spec_get(s, f, &t);
        lua_pushstring(L, text_str(&t));
        lua_setfield(L, -2, f->key);
        text_done(&t);
    }
    return 1;
}

/* host.check(key, text) -> canonical text, or nil and what is wrong. */
static int check(lua_State *L)
{
    const char *key = luaL_checkstring(L, 1), *value = luaL_checkstring(L, 2);
    struct spec *s = lua_newuserdatauv(L, sizeof *s, 0);
    *s = state_script(L)->defaults;
    if (spec_set(s, key, value)) {
        lua_pushnil(L);
        lua_pushstring(L, err_text());
        return 2;
    }
    struct text t = {0};
    spec_get(s, spec_find(key), &t);
    lua_pushstring(L, text_str(&t));
    text_done(&t);
    return 1;
}

void host_spec_from(lua_State *L, int idx, struct spec *s)
{
    idx = lua_absindex(L, idx);
    lua_pushnil(L);
    while (lua_next(L, idx)) {
        if (spec_set(s, lua_tostring(L, -2), lua_tostring(L, -1))) luaL_error(L, "%s", err_text());
        lua_pop(L, 1);
    }
}

/* host.hash(settings): config hash of a table key -> canonical text over the defaults. */
static int hash(lua_State *L)
{
    char hex[SHA256_TEXT];
    struct spec *s = lua_newuserdatauv(L, sizeof *s, 0);
    *s = state_script(L)->defaults;
    host_spec_from(L, 1, s);
    spec_hash(s, hex);
    lua_pushstring(L, hex);
    return 1;
}

static int raise_host(lua_State *L, err_t err)
{
    state_script(L)->host_err = err;
    return luaL_error(L, "%s", err_text());
}

static int predict(lua_State *L)
{
    struct script *sc = state_script(L);
    if (!sc->host.predict) return luaL_error(L, "c.predicted: costs cannot be predicted here");
    struct spec *s = lua_newuserdatauv(L, sizeof *s, 0);
    *s = sc->defaults;
    host_spec_from(L, 1, s);
    double total = 0, executed = 0, params = 0;
    err_t err = sc->host.predict(sc->host.ctx, s, &total, &executed, &params);
    if (err) return raise_host(L, err);
    lua_pushnumber(L, total);
    lua_pushnumber(L, executed);
    lua_pushnumber(L, params);
    return 3;
}

static int data_info(lua_State *L)
{
    struct script *sc = state_script(L);
    const char *name = luaL_checkstring(L, 1);
    int d = 0;
    double rms = 0;
    if (!sc->host.data_info) return luaL_error(L, "nothing is known here about data set '%s'", name);
    err_t err = sc->host.data_info(sc->host.ctx, name, &d, &rms);
    if (err) return raise_host(L, err);
    lua_pushinteger(L, d);
    lua_pushnumber(L, rms);
    return 2;
}

/* host.random(seed, stream, i): a number in [0, 1) that depends on nothing but its arguments. */
static int random_at(lua_State *L)
{
    struct sha256 h;
    uint8_t digest[SHA256_BYTES];
    uint64_t v = 0;
    const char *key =
        lua_pushfstring(L, "%I:%I:%s", luaL_checkinteger(L, 1), luaL_checkinteger(L, 3), luaL_checkstring(L, 2));
    sha256_init(&h);
    sha256_add(&h, key, strlen(key));
    sha256_end(&h, digest);
    for (int i = 0; i < 8; i++) v = v << 8 | digest[i];
    lua_pushnumber(L, (double)(v >> 11) * 0x1p-53);
    return 1;
}

static int in_design(lua_State *L)
{
    lua_pushboolean(L, state_script(L)->in_design);
    return 1;
}
/* host.design(true|false) around calls of design functions made by the library. */
static int set_in_design(lua_State *L)
{
    state_script(L)->in_design = lua_toboolean(L, 1);
    return 0;
}

static int log_line(lua_State *L)
{
    bool warning = lua_toboolean(L, 2);
    log_at(warning ? LOG_WARN : LOG_INFO, "%s", luaL_checkstring(L, 1));
    return 0;
}

/* host.nearest(word, list) -> name or nil */
static int nearest(lua_State *L)
{
    const char *word = luaL_checkstring(L, 1);
    lua_Integer n = luaL_len(L, 2);
    const char **names = lua_newuserdatauv(L, (size_t)(n ? n : 1) * sizeof *names, 0);
    for (lua_Integer i = 0; i < n; i++) {
        lua_rawgeti(L, 2, i + 1);
        names[i] = luaL_checkstring(L, -1); /* kept by the list */
        lua_pop(L, 1);
    }
    lua_pushstring(L, nearest_name(word, names, (size_t)n));
    return 1;
}

/* ---- where things are in the source ---------------------------------------------------------------------------------- */

static struct source *script_tokens(struct script *s)
{
    if (!s->tokens) s->tokens = source_new(s->source ? s->source : "");
    return s->tokens;
}

/* host.complain(message, key): an error at the place in the script that called the library; if key is given, at that key. */
static int complain(lua_State *L)
{
    struct script *s = state_script(L);
    const char *msg = luaL_checkstring(L, 1), *key = luaL_optstring(L, 2, NULL);
    lua_Debug ar;
    for (int level = 1; lua_getstack(L, level, &ar); level++) {
        lua_getinfo(L, "Sl", &ar);
        if (ar.source[0] != '@' || !s->path || strcmp(ar.source + 1, s->path)) continue;
        int line = ar.currentline;
        if (key && *key && s->source) line = source_key_line(script_tokens(s), line, key);
        lua_pushfstring(L, "%s:%d: %s", s->path, line, msg);
        return lua_error(L);
    }
    lua_pushstring(L, msg);
    return lua_error(L);
}

/* host.init_file(name): path and hash of a file of starting weights. */
static int init_file(lua_State *L)
{
    struct script *sc = state_script(L);
    const char *name = luaL_checkstring(L, 1);
    char *path = NULL, sha[SHA256_TEXT];
    if (!sc->host.init_file) return luaL_error(L, "init = %s: files cannot be looked at here", name);
    err_t err = sc->host.init_file(sc->host.ctx, name, &path, sha);
    if (err) {
        sc->host_err = err;
        lua_settop(L, 0);
        lua_pushstring(L, err_text());
        lua_pushliteral(L, "init");
        return complain(L);
    }
    lua_pushstring(L, path);
    lua_pushstring(L, sha);
    mem_free(path);
    return 2;
}

/* host.tokens(f) -> text of its tokens, or nil and what is wrong; then its file, line. */
static int tokens(lua_State *L)
{
    struct script *s = state_script(L);
    lua_Debug ar;
    luaL_checktype(L, 1, LUA_TFUNCTION);
    lua_pushvalue(L, 1);
    lua_getinfo(L, ">S", &ar);
    const struct embed *e = NULL;
    bool ours = ar.source[0] == '@' && s->path && !strcmp(ar.source + 1, s->path);
    if (!ours && ar.source[0] == '@') e = embed_find(ar.source + 1);
    struct text t = {0};
    int found = 0;
    if (ours) found = source_function(script_tokens(s), ar.linedefined, ar.lastlinedefined, &t);
    if (e) {
        struct source *library = source_new(e->data);
        found = source_function(library, ar.linedefined, ar.lastlinedefined, &t);
        source_free(library);
    }
    if (found == 1) lua_pushstring(L, text_str(&t));
    else lua_pushnil(L);
    text_done(&t);
    lua_pushstring(L, ar.source[0] == '@' ? ar.source + 1 : ar.short_src);
    lua_pushinteger(L, ar.linedefined);
    lua_pushstring(
        L, found == 2 ? "two functions on one line: which one is meant cannot be told; give each its own line"
           : !strcmp(ar.what, "C") ? "a built-in function cannot be a design function; wrap it in a Lua function"
           : found == 0            ? "its source text is not at hand"
                                   : "");
    return 4;
}

/* host.upvalue(f, i) -> name, value; nothing after the last. */
static int upvalue(lua_State *L)
{
    luaL_checktype(L, 1, LUA_TFUNCTION);
    const char *name = lua_getupvalue(L, 1, (int)luaL_checkinteger(L, 2));
    if (!name) return 0;
    lua_pushstring(L, name);
    lua_insert(L, -2);
    return 2;
}

/* host.compile(text, chunk name, environment) -> function, or nil and message */
static int compile(lua_State *L)
{
    size_t n;
    const char *p = luaL_checklstring(L, 1, &n), *chunk = luaL_checkstring(L, 2);
    if (luaL_loadbufferx(L, p, n, chunk, "t") != LUA_OK) {
        lua_pushnil(L);
        lua_insert(L, -2);
        return 2;
    }
    lua_pushvalue(L, 3);
    lua_setupvalue(L, -2, 1);
    return 1;
}

/* host.sets() -> list of "key=value" from the command line */
static int sets(lua_State *L)
{
    struct script *s = state_script(L);
    lua_createtable(L, s->nsets, 0);
    for (int i = 0; i < s->nsets; i++) {
        lua_pushstring(L, s->sets[i]);
        lua_rawseti(L, -2, i + 1);
    }
    return 1;
}

void host_push(lua_State *L)
{
    static const luaL_Reg functions[] = {
        {"cdf", cdf},
        {"quantile", quantile},
        {"num", num},
        {"sha256", sha256},
        {"fields", fields},
        {"check", check},
        {"network", network},
        {"networks", networks},
        {"hash", hash},
        {"predict", predict},
        {"data_info", data_info},
        {"random", random_at},
        {"in_design", in_design},
        {"design", set_in_design},
        {"log", log_line},
        {"nearest", nearest},
        {"complain", complain},
        {"tokens", tokens},
        {"upvalue", upvalue},
        {"compile", compile},
        {"sets", sets},
        {"init_file", init_file},
        {NULL, NULL},
    };
    luaL_newlib(L, functions);
}

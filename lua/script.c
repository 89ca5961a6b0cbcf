/* script: runs a sweep script and hands out its cells. What the script declared stays in Lua as choices around a base; a spec is made from
 * them when a cell is first asked for, so a sweep of a hundred thousand cells costs what one looks at. */
#include "lua/script.h"

#include <string.h>

#include "lua/state.h"

enum { SCRIPT_BUDGET = 1000 * 1000 * 1000 };

/* ---- running the script --------------------------------------------------------------------------------------------------------- */

/* Pushes module.name of the library. */
static void push_library(lua_State *L, const char *module, const char *name)
{
    state_push_module(L, module);
    lua_getfield(L, -1, name);
    lua_remove(L, -2);
}

static err_t run_text(struct script *s)
{
    lua_State *L = s->L;
    push_library(L, "ect.cells", "prepare");
    TRY(state_call(s, 0, 0, SCRIPT_BUDGET));
    push_library(L, "ect", "environment");
    char *chunk = arena_printf(&s->mem, "@%s", s->path);
    TRY(state_load(s, s->source, strlen(s->source), chunk, -1));
    lua_remove(L, -2);
    return state_call(s, 0, 0, SCRIPT_BUDGET);
}

static const char *field_text(struct script *s, const char *name)
{
    lua_getfield(s->L, -1, name);
    const char *text = lua_isnil(s->L, -1) ? NULL : arena_strdup(&s->mem, lua_tostring(s->L, -1));
    lua_pop(s->L, 1);
    return text;
}
static int64_t field_int(struct script *s, const char *name)
{
    lua_getfield(s->L, -1, name);
    int64_t v = (int64_t)lua_tonumber(s->L, -1);
    lua_pop(s->L, 1);
    return v;
}

struct spec_request {
    struct spec *out;
};
static int spec_run(lua_State *L)
{
    const struct spec_request *q = lua_touserdata(L, 2);
    host_spec_from(L, 1, q->out);
    return 0;
}
/* Applies the table on top of the stack (key -> text), which is popped. */
static err_t spec_apply(struct script *s, struct spec *out)
{
    struct spec_request q = {out};
    lua_pushcfunction(s->L, spec_run);
    lua_insert(s->L, -2);
    lua_pushlightuserdata(s->L, &q);
    return state_call(s, 2, 0, SCRIPT_BUDGET);
}

/* The sweep's table is on top of the stack. */
static err_t sweep_read(struct script *s, struct script_sweep *out, struct sweep_data *data)
{
    lua_State *L = s->L;
    *out = (struct script_sweep){field_text(s, "name"), field_int(s, "seed"), (int)field_int(s, "first"),
                                 (int)field_int(s, "ncells"), field_text(s, "declared")};
    data->base = s->defaults;
    lua_getfield(L, -1, "base");
    TRY(spec_apply(s, &data->base));
    lua_getfield(L, -1, "evals");
    data->nevals = (int)luaL_len(L, -1);
    data->evals = arena_alloc(&s->mem, (size_t)data->nevals * sizeof *data->evals);
    for (int i = 0; i < data->nevals; i++) {
        data->evals[i] = s->defaults;
        lua_rawgeti(L, -1, i + 1);
        TRY(spec_apply(s, &data->evals[i]));
    }
    lua_pop(L, 1);
    return ERR_OK;
}

static err_t read_sweeps(struct script *s)
{
    lua_State *L = s->L;
    push_library(L, "ect.cells", "finish");
    TRY(state_call(s, 0, 2, SCRIPT_BUDGET));
    s->ncells = (int)lua_tointeger(L, -1);
    lua_pop(L, 1);
    s->nsweeps = (int)luaL_len(L, -1);
    s->sweeps = arena_alloc(&s->mem, (size_t)s->nsweeps * sizeof *s->sweeps);
    s->sweep_data = arena_alloc(&s->mem, (size_t)s->nsweeps * sizeof *s->sweep_data);
    s->cells = arena_alloc(&s->mem, (size_t)s->ncells * sizeof *s->cells);
    s->hashes = arena_alloc(&s->mem, (size_t)s->ncells * sizeof *s->hashes);
    s->bound = arena_alloc(&s->mem, (size_t)s->ncells * sizeof *s->bound);
    for (int i = 0; i < s->nsweeps; i++) {
        lua_rawgeti(L, -1, i + 1);
        TRY(sweep_read(s, &s->sweeps[i], &s->sweep_data[i]));
        lua_pop(L, 1);
    }
    lua_pop(L, 1);
    return ERR_OK;
}

static err_t set_registry(struct script *s)
{
    lua_State *L = s->L;
    push_library(L, "ect", "state");
    lua_getfield(L, -1, "fields");
    lua_setfield(L, LUA_REGISTRYINDEX, "ect.s.fields");
    lua_getfield(L, -1, "s");
    lua_setfield(L, LUA_REGISTRYINDEX, "ect.s");
    lua_pop(L, 1);
    return ERR_OK;
}

err_t script_open(struct script **out, const char *path, const char *text, const char *const *sets, int nsets,
                  const struct script_host *script_host)
{
    err_t err;
    struct script *s = mem_alloc(sizeof *s);
    char *read = NULL;
    size_t n = 0;
    *out = NULL;
    arena_init(&s->mem);
    if (script_host) s->host = *script_host;
    s->sets = sets;
    s->nsets = nsets;
    spec_defaults(&s->defaults);
    s->path = arena_strdup(&s->mem, path);
    if (!text) {
        TRYD(file_read(path, 16 << 20, &read, &n));
        if (strlen(read) != n) {
            err = fail(ERR_USAGE, "%s: a script is text, this file has zero bytes in it", path);
            goto done;
        }
    }
    s->source = arena_strdup(&s->mem, text ? text : read);
    TRYD(state_open(s));
    TRYD(set_registry(s));
    TRYD(run_text(s));
    TRYD(read_sweeps(s));
    for (int i = 0; i < s->nsweeps; i++) { /* faults of whole sweeps are told now, not when a cell is looked at */
        if (s->sweeps[i].ncells && !script_cell_at(s, s->sweeps[i].first)) err = fail(ERR_USAGE, "%s", err_text());
        if (err) goto done;
    }
    *out = s;
done:
    s->sets = NULL;
    s->nsets = 0;
    mem_free(read);
    if (err) script_close(s);
    return err;
}

void script_close(struct script *s)
{
    if (!s) return;
    state_close(s);
    arena_done(&s->mem);
    mem_free(s);
}

/* ---- cells ------------------------------------------------------------------------------------------------------------------------ */

int script_nsweeps(const struct script *s)
{
    return s->nsweeps;
}
const struct script_sweep *script_sweep_at(const struct script *s, int i)
{
    return &s->sweeps[i];
}
int script_ncells(const struct script *s)
{
    return s->ncells;
}
const char *script_source(const struct script *s)
{
    return s->source;
}

static int sweep_of(const struct script *s, int cell)
{
    int i = 0;
    while (cell >= s->sweeps[i].first + s->sweeps[i].ncells) i++;
    return i;
}

/* Spec of a cell, and its hash if that is not known yet. */
static err_t cell_spec(struct script *s, int i, struct spec *spec)
{
    *spec = s->sweep_data[sweep_of(s, i)].base;
    push_library(s->L, "ect.cells", "set");
    lua_pushinteger(s->L, i + 1);
    TRY(state_call(s, 1, 1, SCRIPT_BUDGET));
    TRY(spec_apply(s, spec));
    if (!s->hashes[i]) {
        char hash[SHA256_TEXT];
        spec_hash(spec, hash);
        s->hashes[i] = arena_strdup(&s->mem, hash);
    }
    return ERR_OK;
}

static err_t cell_make(struct script *s, int i, struct script_cell *c)
{
    int sweep = sweep_of(s, i);
    TRY(cell_spec(s, i, &c->spec));
    push_library(s->L, "ect.cells", "about");
    lua_pushinteger(s->L, i + 1);
    TRY(state_call(s, 1, 1, SCRIPT_BUDGET));
    c->sweep = s->sweeps[sweep].name;
    c->cell = field_text(s, "name");
    c->factors = field_text(s, "factors");
    c->ordinal = (int)field_int(s, "ordinal");
    c->parent = (int)field_int(s, "parent");
    c->parent_weights = field_text(s, "weights");
    c->init_path = field_text(s, "init_path");
    c->replicates = (int)field_int(s, "replicates");
    c->fingerprints = field_text(s, "fingerprints");
    c->nevals = s->sweep_data[sweep].nevals;
    c->evals = s->sweep_data[sweep].evals;
    strcpy(c->hash, s->hashes[i]);
    lua_pop(s->L, 1);
    return ERR_OK;
}

/* NULL, with err_text(), only where a design function of this very cell cannot be evaluated. */
const struct script_cell *script_cell_at(const struct script *const_s, int i)
{
    struct script *s = (struct script *)const_s; /* cells are a cache */
    if (i < 0 || i >= s->ncells) return NULL;
    if (!s->cells[i]) {
        struct script_cell *c = arena_alloc(&s->mem, sizeof *c);
        if (cell_make(s, i, c)) return NULL;
        s->cells[i] = c;
    }
    return s->cells[i];
}

int script_find_cell(const struct script *const_s, const char *config_hash)
{
    struct script *s = (struct script *)const_s;
    struct spec *spec = mem_alloc(sizeof *spec);
    int found = -1;
    for (int i = 0; i < s->ncells && found < 0; i++) {
        if (!s->hashes[i] && cell_spec(s, i, spec)) continue;
        if (!strcmp(s->hashes[i], config_hash)) found = i;
    }
    mem_free(spec);
    return found;
}

/* ---- recipes ---------------------------------------------------------------------------------------------------------------------- */

const char *script_library(void)
{
    return LUA_RELEASE;
}

/* Asked of the library once; the list lives as long as the program. */
int script_recipes(const char *const **names)
{
    static const char **list;
    static int n;
    struct script *s;
    *names = list;
    if (list) return n;
    if (script_open(&s, "recipes", "local ect = require \"ect\"", NULL, 0, NULL)) {
        log_warn("%s", err_text());
        return 0;
    }
    state_push_module(s->L, "ect");
    lua_getfield(s->L, -1, "recipes");
    n = (int)luaL_len(s->L, -1);
    list = mem_array((size_t)n + 1, sizeof *list);
    for (int i = 0; i < n; i++) {
        lua_rawgeti(s->L, -1, i + 1);
        list[i] = mem_strdup(lua_tostring(s->L, -1));
        lua_pop(s->L, 1);
    }
    script_close(s);
    *names = list;
    return n;
}

err_t script_recipe(struct script **s, const char *recipe, const char *const *sets, int nsets,
                    const struct script_host *script_host)
{
    const char *const *names;
    int n = script_recipes(&names);
    bool known = false;
    for (int i = 0; i < n; i++) known = known || !strcmp(names[i], recipe);
    if (!known) {
        const char *near = nearest_name(recipe, names, (size_t)n);
        return near ? fail(ERR_USAGE, "no recipe '%s': did you mean '%s'?", recipe, near)
                    : fail(ERR_USAGE, "no recipe '%s' (ect help recipes lists them)", recipe);
    }
    char *text = mem_printf("local ect = require \"ect\"\nect.run \"%s\" { ect.recipe \"%s\" }\n", recipe, recipe);
    char *path = mem_printf("recipe:%s", recipe);
    err_t err = script_open(s, path, text, sets, nsets, script_host);
    mem_free(text);
    mem_free(path);
    return err;
}

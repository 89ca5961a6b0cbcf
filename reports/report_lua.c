/* report_lua: runs a report definition. A definition sees one table, `report`: query results as Lua rows, the statistics of the
 * database, and functions that add blocks. It has no files, no clock and no randomness, and pairs() goes in sorted order, so the
 * same ledger gives the same blocks. This is the one file of reports/ that knows Lua. */
#include "reports/block.h"

#include <jansson.h>
#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "db/query.h"
#include "db/stats.h"

enum { INSTRUCTIONS = 1000 * 1000 * 1000 }; /* a definition that runs longer is stuck */

struct binding {
    struct report *report;
    err_t code; /* what a failure of the definition means */
};
static struct binding *binding_of(lua_State *L)
{
    return *(struct binding **)lua_getextraspace(L);
}
static struct report *report_of(lua_State *L)
{
    return binding_of(L)->report;
}

/* ---- reading Lua tables into the arena ----------------------------------------------------------------------------- */

static const char *keep(lua_State *L, int i)
{
    const char *s = lua_tostring(L, i);
    return s ? arena_strdup(&report_of(L)->mem, s) : NULL;
}

/* Numbers print as they do everywhere: 3, not 3.0. */
static const char *keep_any(lua_State *L, int i)
{
    if (lua_type(L, i) != LUA_TNUMBER) return keep(L, i);
    char b[NUM_TEXT];
    return arena_strdup(&report_of(L)->mem, num_text(b, lua_tonumber(L, i)));
}

static const char *field_text(lua_State *L, int t, const char *key)
{
    lua_getfield(L, t, key);
    const char *s = keep_any(L, -1);
    lua_pop(L, 1);
    return s;
}

static double field_num(lua_State *L, int t, const char *key, double otherwise)
{
    lua_getfield(L, t, key);
    double v = lua_isnumber(L, -1) ? lua_tonumber(L, -1) : otherwise;
    lua_pop(L, 1);
    return v;
}

static bool field_bool(lua_State *L, int t, const char *key)
{
    lua_getfield(L, t, key);
    bool v = lua_toboolean(L, -1);
    lua_pop(L, 1);
    return v;
}

/* Pushes t[key], which must be a table or absent; returns its length, 0 where absent. */
static int field_list(lua_State *L, int t, const char *key)
{
    int type = lua_getfield(L, t, key);
    if (type != LUA_TTABLE && type != LUA_TNIL) luaL_error(L, "'%s' of a block must be a table", key);
    return type == LUA_TTABLE ? (int)luaL_len(L, -1) : 0;
}

/* List at index t as n doubles in the arena; what is not a number is NaN. */
static double *keep_numbers(lua_State *L, int t, int n)
{
    double *v = arena_alloc(&report_of(L)->mem, (size_t)n * sizeof *v + 1);
    for (int i = 0; i < n; i++) {
        lua_geti(L, t, i + 1);
        v[i] = lua_isnumber(L, -1) ? lua_tonumber(L, -1) : NAN;
        lua_pop(L, 1);
    }
    return v;
}

static double *field_numbers(lua_State *L, int t, const char *key, int n)
{
    double *v = NULL;
    if (lua_getfield(L, t, key) == LUA_TTABLE) v = keep_numbers(L, lua_gettop(L), n);
    lua_pop(L, 1);
    return v;
}

static enum num_kind kind_named(lua_State *L, const char *s)
{
    static const char *const names[] = {"plain", "metric", "flops", "seconds", "count"};
    if (!s) return NUM_PLAIN;
    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        if (!strcmp(s, names[i])) return (enum num_kind)i;
    return luaL_error(L, "no kind of number '%s'", s);
}

/* ---- asking the ledger ------------------------------------------------------------------------------------------------ */

/* Parameters are bound as text; comparison with a column of numbers converts. */
static int l_sql(lua_State *L)
{
    const char *sql = luaL_checkstring(L, 1);
    int n = lua_gettop(L) - 1;
    const char *p[4] = {"", "", "", ""};
    luaL_argcheck(L, n <= 4, 6, "at most four parameters");
    for (int i = 0; i < n; i++) p[i] = luaL_checkstring(L, i + 2);
    struct table t;
    static const char *const fmt[] = {"", "s", "ss", "sss", "ssss"};
    if (query(report_of(L)->ledger, &t, sql, fmt[n], p[0], p[1], p[2], p[3])) return luaL_error(L, "%s", err_text());
    lua_createtable(L, t.nrows, 0);
    for (int i = 0; i < t.nrows; i++) {
        lua_createtable(L, 0, t.ncols);
        for (int j = 0; j < t.ncols; j++) {
            const struct cell *c = table_at(&t, i, j);
            if (c->kind == CELL_NULL) continue;
            if (c->kind == CELL_INT && fabs(c->num) < 9e15) lua_pushinteger(L, (lua_Integer)c->num);
            else if (c->kind == CELL_REAL) lua_pushnumber(L, c->num);
            else lua_pushlstring(L, c->text, c->kind == CELL_INT ? strlen(c->text) : c->bytes);
            lua_setfield(L, -2, t.cols[j]);
        }
        lua_seti(L, -2, i + 1);
    }
    table_done(&t);
    return 1;
}

static void push_json(lua_State *L, const json_t *j)
{
    luaL_checkstack(L, 4, "JSON");
    switch (json_typeof(j)) {
    case JSON_OBJECT: {
        const char *key;
        json_t *v;
        lua_newtable(L);
        json_object_foreach((json_t *)j, key, v)
        {
            push_json(L, v);
            lua_setfield(L, -2, key);
        }
        break;
    }
    case JSON_ARRAY:
        lua_newtable(L);
        for (size_t i = 0; i < json_array_size(j); i++) {
            push_json(L, json_array_get(j, i));
            lua_seti(L, -2, (lua_Integer)i + 1);
        }
        break;
    case JSON_STRING: lua_pushlstring(L, json_string_value(j), json_string_length(j)); break;
    case JSON_INTEGER: lua_pushinteger(L, json_integer_value(j)); break;
    case JSON_REAL: lua_pushnumber(L, json_real_value(j)); break;
    case JSON_TRUE: lua_pushboolean(L, 1); break;
    case JSON_FALSE: lua_pushboolean(L, 0); break;
    case JSON_NULL: lua_pushnil(L); break;
    }
}

/* json(text) -> value; nil and a message where it is not JSON. null is nil. */
static int l_json(lua_State *L)
{
    size_t n;
    const char *s = luaL_checklstring(L, 1, &n);
    json_error_t e;
    json_t *j = json_loadb(s, n, JSON_DECODE_ANY | JSON_ALLOW_NUL, &e);
    if (!j) {
        lua_pushnil(L);
        lua_pushstring(L, e.text);
        return 2;
    }
    push_json(L, j);
    json_decref(j);
    return 1;
}

/* blob(sha) -> bytes, nil where the ledger has none. */
static int l_blob(lua_State *L)
{
    char *data;
    size_t n;
    if (ledger_get_blob(report_of(L)->ledger, luaL_checkstring(L, 1), &data, &n)) return 0;
    lua_pushlstring(L, data, n);
    mem_free(data);
    return 1;
}

/* ---- statistics: lists over replicates, where nil and NaN are holes --------------------------------------------------- */

/* Twelve digits of a bound: the last few depend on how the C library's logarithm was compiled, and bytes must not. */
static double bound(double v)
{
    char b[NUM_TEXT];
    snprintf(b, sizeof b, "%.12g", v);
    return strtod(b, NULL);
}

static void push_interval(lua_State *L, struct interval v)
{
    lua_createtable(L, 0, 4);
    const char *const key[] = {"mean", "lo", "hi"};
    const double num[] = {v.mean, bound(v.lo), bound(v.hi)};
    for (int i = 0; i < 3; i++) {
        if (isnan(num[i])) continue;
        lua_pushnumber(L, num[i]);
        lua_setfield(L, -2, key[i]);
    }
    lua_pushinteger(L, v.n);
    lua_setfield(L, -2, "n");
}

/* interval(list, n [, level]) -> { mean, lo, hi, n } over the finite ones */
static int l_interval(lua_State *L)
{
    luaL_checktype(L, 1, LUA_TTABLE);
    int n = (int)luaL_checkinteger(L, 2), m = 0;
    double level = luaL_optnumber(L, 3, .95), *v = keep_numbers(L, 1, n);
    for (int i = 0; i < n; i++)
        if (!isnan(v[i])) v[m++] = v[i];
    push_interval(L, m ? stat_interval(v, m, level) : (struct interval){NAN, NAN, NAN, 0});
    return 1;
}

/* paired(a, b, n [, level]) -> the same of a[i] - b[i] */
static int l_paired(lua_State *L)
{
    luaL_checktype(L, 1, LUA_TTABLE);
    luaL_checktype(L, 2, LUA_TTABLE);
    int n = (int)luaL_checkinteger(L, 3);
    push_interval(L, stat_paired(keep_numbers(L, 1, n), keep_numbers(L, 2, n), n, luaL_optnumber(L, 4, .95)));
    return 1;
}

/* front({ {a, b}, ... }, { "min", "max" }) -> list of booleans */
static int l_front(lua_State *L)
{
    luaL_checktype(L, 1, LUA_TTABLE);
    luaL_checktype(L, 2, LUA_TTABLE);
    int n = (int)luaL_len(L, 1), k = (int)luaL_len(L, 2);
    struct arena *mem = &report_of(L)->mem;
    double *obj = arena_alloc(mem, (size_t)n * (size_t)k * sizeof *obj + 1);
    bool *min = arena_alloc(mem, (size_t)k + 1), *on = arena_alloc(mem, (size_t)n + 1);
    for (int i = 0; i < n; i++) {
        lua_geti(L, 1, i + 1);
        luaL_checktype(L, -1, LUA_TTABLE);
        memcpy(obj + i * k, keep_numbers(L, lua_gettop(L), k), (size_t)k * sizeof *obj);
        lua_pop(L, 1);
    }
    for (int j = 0; j < k; j++) {
        lua_geti(L, 2, j + 1);
        min[j] = strcmp(luaL_checkstring(L, -1), "max") != 0;
        lua_pop(L, 1);
    }
    if (n) pareto_front(n, k, obj, min, on);
    lua_createtable(L, n, 0);
    for (int i = 0; i < n; i++) {
        lua_pushboolean(L, on[i]);
        lua_seti(L, -2, i + 1);
    }
    return 1;
}

/* number(v [, kind]) -> text as tables print it */
static int l_number(lua_State *L)
{
    struct text t = {0};
    num_put(&t, luaL_checknumber(L, 1), kind_named(L, luaL_optstring(L, 2, "plain")), FLAVOUR_PLAIN);
    lua_pushlstring(L, text_str(&t), t.len);
    text_done(&t);
    return 1;
}

/* ---- blocks -------------------------------------------------------------------------------------------------------------- */

static struct block *add(lua_State *L, enum block_kind kind)
{
    luaL_checktype(L, 1, LUA_TTABLE);
    struct block *b = block_add(report_of(L), kind);
    b->title = field_text(L, 1, "title");
    b->text = field_text(L, 1, "text");
    b->fold = field_bool(L, 1, "fold");
    return b;
}

static int l_title(lua_State *L)
{
    luaL_checkstring(L, 1);
    report_of(L)->title = keep(L, 1);
    return 0;
}

static int l_section(lua_State *L)
{
    luaL_checkstring(L, 1);
    const char *s = keep(L, 1);
    block_add(report_of(L), BLOCK_SECTION)->title = s;
    return 0;
}

static int l_text(lua_State *L)
{
    luaL_checkstring(L, 1);
    const char *s = keep(L, 1);
    block_add(report_of(L), BLOCK_TEXT)->text = s;
    return 0;
}

static int l_code(lua_State *L)
{
    add(L, BLOCK_CODE);
    return 0;
}

/* facts{ title=, {key, value}, ... } */
static int l_facts(lua_State *L)
{
    struct block *b = add(L, BLOCK_FACTS);
    b->n = (int)luaL_len(L, 1);
    b->facts = arena_alloc(&report_of(L)->mem, (size_t)b->n * sizeof *b->facts + 1);
    for (int i = 0; i < b->n; i++) {
        lua_geti(L, 1, i + 1);
        luaL_checktype(L, -1, LUA_TTABLE);
        lua_geti(L, -1, 1);
        lua_geti(L, -2, 2);
        b->facts[i].key = keep_any(L, -2);
        b->facts[i].value = keep_any(L, -1);
        if (!b->facts[i].key || !b->facts[i].value) luaL_error(L, "fact %d needs a key and a value", i + 1);
        lua_pop(L, 3);
    }
    return 0;
}

static void read_cell(lua_State *L, int i, struct rcell *c)
{
    *c = (struct rcell){.lo = NAN, .hi = NAN, .mean = NAN, .span = 1};
    int type = lua_type(L, i);
    if (type == LUA_TSTRING) c->kind = RC_TEXT, c->text = keep(L, i);
    else if (type == LUA_TNUMBER) c->kind = RC_NUM, c->mean = lua_tonumber(L, i);
    if (type != LUA_TTABLE) return;
    c->span = (int)field_num(L, i, "span", 1);
    c->note = (int)field_num(L, i, "note", 0);
    c->n = (int)field_num(L, i, "n", 0);
    c->of = (int)field_num(L, i, "of", 0);
    c->bold = field_bool(L, i, "bold");
    c->mean = field_num(L, i, "mean", NAN);
    c->lo = field_num(L, i, "lo", NAN);
    c->hi = field_num(L, i, "hi", NAN);
    c->kind = RC_NUM;
    if ((c->text = field_text(L, i, "text"))) c->kind = RC_TEXT;
    if (field_bool(L, i, "refused")) c->kind = RC_REFUSED;
    const char *command = field_text(L, i, "missing");
    if (command) c->kind = RC_MISSING, c->text = command;
    c->nruns = field_list(L, i, "runs");
    int runs = lua_gettop(L);
    c->runs = arena_alloc(&report_of(L)->mem, (size_t)c->nruns * sizeof *c->runs + 1);
    for (int k = 0; k < c->nruns; k++) {
        lua_geti(L, runs, k + 1);
        c->runs[k] = keep(L, -1);
        lua_pop(L, 1);
        if (!c->runs[k]) luaL_error(L, "a cell's runs must be run ids");
    }
    lua_pop(L, 1);
    c->values = field_numbers(L, i, "values", c->nruns);
}

static void read_row(lua_State *L, int i, int ncols, struct rrow *row)
{
    row->id = field_text(L, i, "id");
    row->cells = arena_alloc(&report_of(L)->mem, (size_t)ncols * sizeof *row->cells + 1);
    for (int j = 0; j < ncols; j++) {
        lua_geti(L, i, j + 1);
        read_cell(L, lua_gettop(L), &row->cells[j]);
        lua_pop(L, 1);
    }
    for (int j = 0; j < ncols; j++)
        if (row->cells[j].span < 1 || j + row->cells[j].span > ncols)
            luaL_error(L, "a cell spans past the last column");
}

static void read_group(lua_State *L, int i, int ncols, struct rgroup *g)
{
    g->label = field_text(L, i, "label");
    g->nrows = (int)luaL_len(L, i);
    g->rows = arena_alloc(&report_of(L)->mem, (size_t)g->nrows * sizeof *g->rows + 1);
    for (int k = 0; k < g->nrows; k++) {
        if (lua_geti(L, i, k + 1) != LUA_TTABLE) luaL_error(L, "a row must be a table");
        read_row(L, lua_gettop(L), ncols, &g->rows[k]);
        lua_pop(L, 1);
    }
}

/* table{ id=, title=, text=, vs=, columns={ {key=, head=, kind=, text=} }, groups={ {label=, row, ...} }, notes={...} }; a row is a
 * list of cells with an id; a cell is text, a number, or a table with the fields of struct rcell. */
static int l_table(lua_State *L)
{
    struct block *b = add(L, BLOCK_TABLE);
    struct rtable *t = &b->table;
    struct arena *mem = &report_of(L)->mem;
    t->id = field_text(L, 1, "id");
    t->vs = field_text(L, 1, "vs");
    t->wide = field_bool(L, 1, "wide");
    t->ncols = field_list(L, 1, "columns");
    t->cols = arena_alloc(mem, (size_t)t->ncols * sizeof *t->cols + 1);
    for (int j = 0; j < t->ncols; j++) {
        if (lua_geti(L, -1, j + 1) != LUA_TTABLE) luaL_error(L, "a column must be a table");
        struct rcolumn *c = &t->cols[j];
        c->key = field_text(L, lua_gettop(L), "key");
        c->head = field_text(L, lua_gettop(L), "head");
        const char *kind = field_text(L, lua_gettop(L), "kind");
        if (!c->key) luaL_error(L, "column %d has no key", j + 1);
        if (!c->head) c->head = c->key;
        c->text = kind && !strcmp(kind, "text");
        c->kind = c->text ? NUM_PLAIN : kind_named(L, kind);
        lua_pop(L, 1);
    }
    lua_pop(L, 1);
    t->ngroups = field_list(L, 1, "groups");
    t->groups = arena_alloc(mem, (size_t)t->ngroups * sizeof *t->groups + 1);
    for (int i = 0; i < t->ngroups; i++) {
        if (lua_geti(L, -1, i + 1) != LUA_TTABLE) luaL_error(L, "a group must be a table");
        read_group(L, lua_gettop(L), t->ncols, &t->groups[i]);
        lua_pop(L, 1);
    }
    lua_pop(L, 1);
    t->nnotes = field_list(L, 1, "notes");
    t->notes = arena_alloc(mem, (size_t)t->nnotes * sizeof *t->notes + 1);
    for (int i = 0; i < t->nnotes; i++) {
        lua_geti(L, -1, i + 1);
        t->notes[i] = keep(L, -1);
        if (!t->notes[i]) luaL_error(L, "a note must be text");
        lua_pop(L, 1);
    }
    return 0;
}

static struct raxis read_axis(lua_State *L, const char *key)
{
    struct raxis a = {"", false};
    if (lua_getfield(L, 1, key) == LUA_TTABLE) {
        const char *label = field_text(L, lua_gettop(L), "label");
        if (label) a.label = label;
        a.log = field_bool(L, lua_gettop(L), "log");
    }
    lua_pop(L, 1);
    return a;
}

/* figure{ id=, title=, text=, x={label=, log=}, y={...}, series={ {label=, x={}, y={}, lo={}, hi={}, line=, points=, hollow=, color=,
 * runs=} } } */
static int l_figure(lua_State *L)
{
    struct block *b = add(L, BLOCK_FIGURE);
    struct rfigure *f = &b->figure;
    f->id = field_text(L, 1, "id");
    f->x = read_axis(L, "x");
    f->y = read_axis(L, "y");
    f->nseries = field_list(L, 1, "series");
    f->series = arena_alloc(&report_of(L)->mem, (size_t)f->nseries * sizeof *f->series + 1);
    for (int i = 0; i < f->nseries; i++) {
        struct rseries *s = &f->series[i];
        if (lua_geti(L, -1, i + 1) != LUA_TTABLE) luaL_error(L, "a series must be a table");
        int t = lua_gettop(L);
        s->n = field_list(L, t, "x");
        lua_pop(L, 1);
        s->x = field_numbers(L, t, "x", s->n);
        s->y = field_numbers(L, t, "y", s->n);
        s->lo = field_numbers(L, t, "lo", s->n);
        s->hi = field_numbers(L, t, "hi", s->n);
        if (s->n && !s->y) luaL_error(L, "a series needs x and y");
        s->label = field_text(L, t, "label");
        if (!s->label) s->label = "";
        s->runs = field_text(L, t, "runs");
        s->line = field_bool(L, t, "line");
        s->points = field_bool(L, t, "points");
        s->hollow = field_bool(L, t, "hollow");
        s->color = (int)field_num(L, t, "color", i);
        lua_pop(L, 1);
    }
    return 0;
}

/* images{ title=, text=, {caption=, role=, run=, sha=}, ... } */
static int l_images(lua_State *L)
{
    struct block *b = add(L, BLOCK_IMAGES);
    struct report *r = report_of(L);
    b->n = (int)luaL_len(L, 1);
    b->images = arena_alloc(&r->mem, (size_t)b->n * sizeof *b->images + 1);
    for (int i = 0; i < b->n; i++) {
        struct rimage *g = &b->images[i];
        if (lua_geti(L, 1, i + 1) != LUA_TTABLE) luaL_error(L, "an image must be a table");
        int t = lua_gettop(L);
        g->caption = field_text(L, t, "caption");
        g->role = field_text(L, t, "role");
        g->run = field_text(L, t, "run");
        g->sha = field_text(L, t, "sha");
        if (!g->caption) g->caption = "";
        lua_pop(L, 1);
        char *data;
        if (!g->sha || ledger_get_blob(r->ledger, g->sha, &data, &g->size)) continue;
        char *mine = arena_alloc(&r->mem, g->size + 1);
        memcpy(mine, data, g->size);
        mem_free(data);
        g->data = mine;
    }
    return 0;
}

/* ---- the state ------------------------------------------------------------------------------------------------------------ */

/* not_found(text): the definition cannot go on, because something that was asked for is not in the ledger. */
static int l_not_found(lua_State *L)
{
    luaL_checkstring(L, 1);
    binding_of(L)->code = ERR_NOT_FOUND;
    lua_settop(L, 1);
    return lua_error(L);
}

/* refuse(text): likewise, because what was asked for makes no sense. */
static int l_refuse(lua_State *L)
{
    luaL_checkstring(L, 1);
    binding_of(L)->code = ERR_USAGE;
    lua_settop(L, 1);
    return lua_error(L);
}

/* require "NAME": reports/NAME.lua, run once, with the table `report` as its argument. */
static int l_require(lua_State *L)
{
    const char *name = luaL_checkstring(L, 1);
    lua_settop(L, 1);
    lua_getfield(L, LUA_REGISTRYINDEX, "ect.loaded"); /* index 2 */
    if (lua_getfield(L, -1, name) != LUA_TNIL) return 1;
    lua_pop(L, 1);
    if (strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-") != strlen(name))
        return luaL_error(L, "require: '%s' is not a report's name", name);
    const char *source = report_file(report_of(L), lua_pushfstring(L, "%s.lua", name));
    if (!source) return luaL_error(L, "require: no reports/%s.lua", name);
    if (luaL_loadbufferx(L, source, strlen(source), lua_pushfstring(L, "@reports/%s.lua", name), "t"))
        return lua_error(L);
    lua_getfield(L, LUA_REGISTRYINDEX, "ect.report");
    lua_call(L, 1, 1);
    if (lua_isnil(L, -1)) lua_pop(L, 1), lua_pushboolean(L, 1);
    lua_pushvalue(L, -1);
    lua_setfield(L, 2, name);
    return 1;
}

static void stuck(lua_State *L, lua_Debug *d)
{
    (void)d;
    luaL_error(L, "this report runs for too long");
}

static int traceback(lua_State *L)
{
    const char *s = lua_tostring(L, 1);
    if (binding_of(L)->code == ERR_NOT_FOUND || (s && binding_of(L)->code == ERR_USAGE)) return 1;
    luaL_traceback(L, L, s ? s : "error without text", 1);
    return 1;
}

/* The order of pairs() differs from process to process in plain Lua. */
static const char prelude[] = "local next, sort, type, tostring = next, table.sort, type, tostring\n"
                              "function pairs(t)\n"
                              "    local keys = {}\n"
                              "    for k in next, t do keys[#keys + 1] = k end\n"
                              "    sort(keys, function(a, b)\n"
                              "        if type(a) == type(b) and type(a) ~= 'boolean' then return a < b end\n"
                              "        return tostring(a) < tostring(b)\n"
                              "    end)\n"
                              "    local i = 0\n"
                              "    return function()\n"
                              "        i = i + 1\n"
                              "        if keys[i] ~= nil then return keys[i], t[keys[i]] end\n"
                              "    end\n"
                              "end\n";

static int run(lua_State *L)
{
    static const luaL_Reg libs[] = {{LUA_GNAME, luaopen_base},
                                    {LUA_TABLIBNAME, luaopen_table},
                                    {LUA_STRLIBNAME, luaopen_string},
                                    {LUA_MATHLIBNAME, luaopen_math},
                                    {LUA_UTF8LIBNAME, luaopen_utf8}};
    static const luaL_Reg functions[] = {
        {"sql", l_sql},         {"json", l_json},     {"blob", l_blob},     {"interval", l_interval},
        {"paired", l_paired},   {"front", l_front},   {"number", l_number}, {"title", l_title},
        {"section", l_section}, {"text", l_text},     {"code", l_code},     {"facts", l_facts},
        {"table", l_table},     {"figure", l_figure}, {"images", l_images}, {"not_found", l_not_found},
        {"refuse", l_refuse},   {NULL, NULL}};
    static const char *const gone[] = {"dofile", "loadfile", "load", "collectgarbage", "print", "next", "warn"};
    for (size_t i = 0; i < ARRAY_LEN(libs); i++) luaL_requiref(L, libs[i].name, libs[i].func, 1), lua_pop(L, 1);
    if (luaL_loadbufferx(L, prelude, sizeof prelude - 1, "=prelude", "t")) return lua_error(L);
    lua_call(L, 0, 0);
    for (size_t i = 0; i < ARRAY_LEN(gone); i++) lua_pushnil(L), lua_setglobal(L, gone[i]);
    lua_getglobal(L, "math");
    lua_pushnil(L), lua_setfield(L, -2, "random");
    lua_pushnil(L), lua_setfield(L, -2, "randomseed");
    lua_pop(L, 1);
    lua_pushcfunction(L, l_require), lua_setglobal(L, "require");

    const struct report *r = report_of(L);
    luaL_newlib(L, functions);
    if (r->opts->sweep) lua_pushstring(L, r->opts->sweep), lua_setfield(L, -2, "sweep_name");
    lua_pushstring(L, r->opts->format ? r->opts->format : "term"), lua_setfield(L, -2, "format");
    lua_pushstring(L, ledger_path(r->ledger)), lua_setfield(L, -2, "ledger");
    lua_setfield(L, LUA_REGISTRYINDEX, "ect.report");
    lua_newtable(L), lua_setfield(L, LUA_REGISTRYINDEX, "ect.loaded");

    const char *source = lua_touserdata(L, 1), *chunk = lua_touserdata(L, 2);
    if (luaL_loadbufferx(L, source, strlen(source), chunk, "t")) return lua_error(L);
    lua_call(L, 0, 0);
    return 0;
}

err_t report_define(struct report *r, const char *name, const char *source, const char *chunk)
{
    struct binding b = {r, ERR_OK};
    err_t err = ERR_OK;
    lua_State *L = luaL_newstate();
    if (!L) return fail(ERR_FAILED, "no memory for Lua");
    *(struct binding **)lua_getextraspace(L) = &b;
    lua_sethook(L, stuck, LUA_MASKCOUNT, INSTRUCTIONS);
    lua_pushcfunction(L, traceback);
    lua_pushcfunction(L, run);
    lua_pushlightuserdata(L, (void *)source);
    lua_pushlightuserdata(L, (void *)chunk);
    if (lua_pcall(L, 2, 0, 1)) {
        const char *s = lua_tostring(L, -1);
        err = fail(b.code ? b.code : ERR_USAGE, "report %s: %s", name, s ? s : "error without text");
    }
    lua_close(L);
    return err;
}

/* design: binds the design functions of a cell, or one given by expression, to C. One protected call evaluates a whole batch; inside, a call
 * of a Lua function on numbers allocates nothing, so a training step does not either.
 *
 * Every value is checked where it leaves Lua: the message names the function's place, the arguments and the step. */
#include "lua/state.h"

#include <math.h>
#include <string.h>

enum { DESIGN_BUDGET = 200 * 1000 * 1000 }; /* VM instructions for one batch */

enum part { PART_STAGE, PART_NOISE, PART_MAPPING, PART_WEIGHT, PART_LR, PART_DROPOUT, PART_EMA, NPARTS };
static const char *const part_name[NPARTS] = {"stage", "noise", "mapping", "weight", "lr", "dropout", "ema"};
static const int part_args[NPARTS] = {0, 1, 1, 2, 0, 0, 0};

struct function {
    enum part part;
    int ref; /* in the registry, or LUA_NOREF for a constant */
    double constant;
    char *id;
};
struct bound {
    struct script *s;
    struct function f[NPARTS]; /* PART_EMA unused */
    struct function ema[DESIGN_EMAS];
    int nemas;
    char ema_name[DESIGN_EMAS][32];
};

/* ---- the table s ---------------------------------------------------------------------------------------------------------- */

/* Registry fields "ect.s" (what functions see) and "ect.s.fields" (what is written). Only existing keys are set: no allocation. */
static void state_write(lua_State *L, const struct design_state *st)
{
    lua_getfield(L, LUA_REGISTRYINDEX, "ect.s.fields");
    const struct {
        const char *name;
        int64_t v;
    } whole[] = {
        {"step", st->step}, {"nimg", st->nimg}, {"batch", st->batch}, {"iters", st->iters}, {"stage", st->stage}};
    const struct {
        const char *name;
        double v;
    } real[] = {{"progress", st->progress}, {"N", st->N}, {"sigma_data", st->sigma_data}};
    for (size_t i = 0; i < ARRAY_LEN(whole); i++) {
        lua_pushinteger(L, whole[i].v);
        lua_setfield(L, -2, whole[i].name);
    }
    for (size_t i = 0; i < ARRAY_LEN(real); i++) {
        lua_pushnumber(L, real[i].v);
        lua_setfield(L, -2, real[i].name);
    }
    lua_pop(L, 1);
}

/* ---- one batch --------------------------------------------------------------------------------------------------------------- */

struct batch {
    const struct function *f;
    const struct design_state *st;
    int n;
    const double *a, *b;
    double *out;
};

/* NULL if v is a value that this part may have at (a, b), else what is wrong with it. */
static const char *wrong_value(enum part part, double v, double a)
{
    if (isnan(v)) return "is nan";
    switch (part) {
    case PART_STAGE:
        if (!(v >= 0 && v < 1e6 && v == floor(v))) return "must be a whole number from 0 on";
        break;
    case PART_NOISE:
        if (!(v > 0) || isinf(v)) return "must be a positive, finite noise level";
        break;
    case PART_MAPPING:
        if (!(v >= 0)) return "must not be negative";
        if (v > a) return "must not be larger than t";
        break;
    case PART_WEIGHT:
        if (isinf(v)) return "must be finite";
        break;
    case PART_LR:
        if (!(v >= 0) || isinf(v)) return "must be a finite number from 0 on";
        break;
    case PART_DROPOUT:
        if (!(v >= 0 && v < 1)) return "must be in [0, 1)";
        break;
    case PART_EMA:
        if (!(v >= 0 && v <= 1)) return "must be in [0, 1]";
        break;
    case NPARTS: break;
    }
    return NULL;
}

/* "mapping(t=0.5, s) = nan: is nan (script.lua:8, step 3)" */
static int raise_value(lua_State *L, const struct batch *q, int i, const char *value, const char *why)
{
    const struct function *f = q->f;
    char a[NUM_TEXT], b[NUM_TEXT];
    const char *args = "s";
    if (f->part == PART_NOISE) args = lua_pushfstring(L, "u=%s, s", num_text(a, q->a[i]));
    if (f->part == PART_MAPPING) args = lua_pushfstring(L, "t=%s, s", num_text(a, q->a[i]));
    if (f->part == PART_WEIGHT) args = lua_pushfstring(L, "t=%s, r=%s, s", num_text(a, q->a[i]), num_text(b, q->b[i]));
    const char *place = f->id;
    if (f->ref != LUA_NOREF && !strncmp(f->id, "lua:", 4)) {
        lua_Debug ar;
        lua_rawgeti(L, LUA_REGISTRYINDEX, f->ref);
        lua_getinfo(L, ">S", &ar);
        place = lua_pushfstring(L, "%s:%d", ar.source + 1, ar.linedefined);
    }
    return luaL_error(L, "%s: %s(%s) = %s %s (step %I)", place, part_name[f->part], args, value, why,
                      (lua_Integer)q->st->step);
}

static int batch_run(lua_State *L)
{
    const struct batch *q = lua_touserdata(L, 1);
    int nargs = part_args[q->f->part];
    state_write(L, q->st);
    lua_rawgeti(L, LUA_REGISTRYINDEX, q->f->ref);
    lua_getfield(L, LUA_REGISTRYINDEX, "ect.s");
    int f = lua_gettop(L) - 1;
    for (int i = 0; i < q->n; i++) {
        lua_pushvalue(L, f);
        if (nargs > 0) lua_pushnumber(L, q->a[i]);
        if (nargs > 1) lua_pushnumber(L, q->b[i]);
        lua_pushvalue(L, f + 1);
        lua_call(L, nargs + 1, 1);
        if (lua_type(L, -1) != LUA_TNUMBER) return raise_value(L, q, i, luaL_typename(L, -1), "is not a number");
        q->out[i] = lua_tonumber(L, -1);
        lua_pop(L, 1);
    }
    return 0;
}

static int batch_check(lua_State *L)
{
    const struct batch *q = lua_touserdata(L, 1);
    char value[NUM_TEXT];
    for (int i = 0; i < q->n; i++) {
        const char *why = wrong_value(q->f->part, q->out[i], q->a ? q->a[i] : 0);
        if (why) return raise_value(L, q, i, num_text(value, q->out[i]), why);
    }
    return 0;
}

static err_t batch_call(struct script *s, lua_CFunction run, const struct batch *q)
{
    s->in_design = true;
    lua_pushcfunction(s->L, run);
    lua_pushlightuserdata(s->L, (void *)q);
    err_t err = state_call(s, 1, 0, DESIGN_BUDGET);
    s->in_design = false;
    return err ? fail_in(ERR_FAILED, "design function") : ERR_OK;
}

static err_t evaluate(struct bound *b, const struct function *f, const struct design_state *st, int n, const double *a,
                      const double *c, double *out)
{
    const struct batch q = {.f = f, .st = st, .n = n, .a = a, .b = c, .out = out};
    if (f->ref == LUA_NOREF) {
        for (int i = 0; i < n; i++) out[i] = f->constant;
    } else {
        TRY(batch_call(b->s, batch_run, &q));
    }
    for (int i = 0; i < n; i++) {
        if (wrong_value(f->part, out[i], a ? a[i] : 0)) return batch_call(b->s, batch_check, &q);
    }
    return ERR_OK;
}

/* ---- struct design -------------------------------------------------------------------------------------------------------------- */

static err_t call_stage(void *ctx, const struct design_state *st, int *stage)
{
    struct bound *b = ctx;
    double v;
    TRY(evaluate(b, &b->f[PART_STAGE], st, 1, NULL, NULL, &v));
    *stage = (int)v;
    return ERR_OK;
}
static err_t call_noise(void *ctx, const struct design_state *st, int n, const double *u, double *t)
{
    struct bound *b = ctx;
    return evaluate(b, &b->f[PART_NOISE], st, n, u, NULL, t);
}
static err_t call_mapping(void *ctx, const struct design_state *st, int n, const double *t, double *r)
{
    struct bound *b = ctx;
    return evaluate(b, &b->f[PART_MAPPING], st, n, t, NULL, r);
}
static err_t call_weight(void *ctx, const struct design_state *st, int n, const double *t, const double *r, double *w)
{
    struct bound *b = ctx;
    return evaluate(b, &b->f[PART_WEIGHT], st, n, t, r, w);
}
static err_t call_lr(void *ctx, const struct design_state *st, double *lr)
{
    struct bound *b = ctx;
    return evaluate(b, &b->f[PART_LR], st, 1, NULL, NULL, lr);
}
static err_t call_dropout(void *ctx, const struct design_state *st, double *p)
{
    struct bound *b = ctx;
    return evaluate(b, &b->f[PART_DROPOUT], st, 1, NULL, NULL, p);
}
static err_t call_ema(void *ctx, const struct design_state *st, int i, double *beta)
{
    struct bound *b = ctx;
    return evaluate(b, &b->ema[i], st, 1, NULL, NULL, beta);
}

/* Takes the function or number on top of the stack. */
static void function_take(struct script *s, struct function *f, enum part part, const char *id)
{
    f->part = part;
    f->id = arena_strdup(&s->mem, id);
    f->ref = LUA_NOREF;
    f->constant = lua_tonumber(s->L, -1);
    if (lua_isnumber(s->L, -1)) lua_pop(s->L, 1);
    else f->ref = luaL_ref(s->L, LUA_REGISTRYINDEX);
}

/* Leaves what stands behind the text of a setting on the stack. */
static err_t find_function(struct script *s, const char *family, const char *text)
{
    lua_State *L = s->L;
    state_push_module(L, "ect");
    lua_getfield(L, -1, "design");
    lua_remove(L, -2);
    lua_pushstring(L, family);
    lua_pushstring(L, text);
    TRY(state_call(s, 2, 2, DESIGN_BUDGET));
    if (lua_isnil(L, -2)) {
        err_t err = fail(ERR_USAGE, "%s", lua_tostring(L, -1));
        lua_pop(L, 2);
        return err;
    }
    lua_pop(L, 1);
    return ERR_OK;
}

static err_t bind_emas(struct bound *b, const struct spec *spec)
{
    struct script *s = b->s;
    lua_State *L = s->L;
    TRY(find_function(s, "ema", spec->ema.id));
    b->nemas = (int)luaL_len(L, -1);
    for (int i = 0; i < b->nemas && i < DESIGN_EMAS; i++) {
        lua_rawgeti(L, -1, i + 1);
        lua_rawgeti(L, -1, 1);
        snprintf(b->ema_name[i], sizeof b->ema_name[i], "%s", lua_tostring(L, -1));
        lua_pop(L, 1);
        lua_rawgeti(L, -1, 2);
        function_take(s, &b->ema[i], PART_EMA, b->ema_name[i]);
        lua_pop(L, 1);
    }
    lua_pop(L, 1);
    return ERR_OK;
}

static err_t bind(struct bound *b, const struct spec *spec)
{
    const char *const text[NPARTS] = {
        spec->stage.id, spec->noise.id, spec->mapping.id, spec->weight.id, spec->lr.id, spec->dropout.id, NULL};
    for (int i = 0; i < PART_EMA; i++) {
        TRY(find_function(b->s, part_name[i], text[i]));
        function_take(b->s, &b->f[i], (enum part)i, text[i]);
    }
    return bind_emas(b, spec);
}

err_t script_design(struct script *s, int cell, struct design *out)
{
    struct bound *b = s->bound[cell];
    if (!b) {
        b = arena_alloc(&s->mem, sizeof *b);
        b->s = s;
        TRY(bind(b, &script_cell_at(s, cell)->spec));
        s->bound[cell] = b;
        lua_gc(s->L, LUA_GCCOLLECT); /* so that no leftover of the script is collected in a training step */
    }
    *out = (struct design){.ctx = b,
                           .stage = call_stage,
                           .noise = call_noise,
                           .mapping = call_mapping,
                           .weight = call_weight,
                           .lr = call_lr,
                           .dropout = call_dropout,
                           .nemas = b->nemas,
                           .ema = call_ema};
    memcpy(out->ema_name, b->ema_name, sizeof out->ema_name);
    return ERR_OK;
}

/* Product of beta over the run, from at most this many steps of it: what is left of the starting weights. */
enum { MEMORY_STEPS = 5000 };

err_t script_ema_memory(struct script *s, int cell, double memory[DESIGN_EMAS])
{
    struct design d;
    TRY(script_design(s, cell, &d));
    const struct spec *spec = &script_cell_at(s, cell)->spec;
    int64_t n = spec->iters < MEMORY_STEPS ? spec->iters : MEMORY_STEPS;
    for (int e = 0; e < d.nemas; e++) {
        double sum = 0;
        for (int64_t k = 0; k < n; k++) {
            int64_t step = (int64_t)((double)k * (double)spec->iters / (double)n);
            double beta;
            struct design_state st = {.step = step,
                                      .nimg = step * spec->batch,
                                      .batch = (int)spec->batch,
                                      .iters = spec->iters,
                                      .progress = (double)step / (double)spec->iters,
                                      .sigma_data = spec->sigma_data > 0 ? spec->sigma_data : 1};
            TRY(d.stage(d.ctx, &st, &st.stage));
            TRY(d.ema(d.ctx, &st, e, &beta));
            sum += log(beta);
        }
        memory[e] = exp(sum * ((double)spec->iters / (double)n));
    }
    return ERR_OK;
}

/* ---- by expression ---------------------------------------------------------------------------------------------------------------- */

struct call {
    const char *expr;
    const struct design_state *st;
    const double *args;
    int nargs;
    double *out;
    int nout;
};

static int call_run(lua_State *L)
{
    const struct call *q = lua_touserdata(L, 1);
    state_write(L, q->st);
    state_push_module(L, "ect");
    lua_getfield(L, -1, "call");
    lua_pushstring(L, q->expr);
    lua_call(L, 1, 1);
    int results = 1;
    if (!lua_isnumber(L, -1)) {
        luaL_checkstack(L, q->nargs + q->nout + 4, "too many arguments");
        for (int i = 0; i < q->nargs; i++) lua_pushnumber(L, q->args[i]);
        lua_getfield(L, LUA_REGISTRYINDEX, "ect.s");
        lua_call(L, q->nargs + 1, q->nout);
        results = q->nout;
    }
    for (int i = 0; i < q->nout; i++) {
        int at = i < results ? i - results : -1;
        if (lua_type(L, at) != LUA_TNUMBER)
            return luaL_error(L, "%s: result %d is a %s, not a number", q->expr, i + 1, luaL_typename(L, at));
        q->out[i] = lua_tonumber(L, at);
    }
    return 0;
}

err_t script_call(struct script *s, const char *expr, const struct design_state *st, const double *args, int nargs,
                  double *out, int nout)
{
    const struct call q = {expr, st, args, nargs, out, nout};
    s->in_design = true;
    lua_pushcfunction(s->L, call_run);
    lua_pushlightuserdata(s->L, (void *)&q);
    err_t err = state_call(s, 1, 0, DESIGN_BUDGET);
    s->in_design = false;
    return err;
}

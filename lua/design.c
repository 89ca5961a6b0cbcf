/* design: binds the design functions of a cell, or one given by expression, to C. One protected call evaluates a whole batch; inside, a call
 * of a Lua function on numbers allocates nothing, so a training step does not either.
 *
 * Every value is checked where it leaves Lua: the message names the function's place, the arguments and the step. */
#include "lua/state.h"

#include <math.h>
#include <string.h>

enum { DESIGN_BUDGET = 200 * 1000 * 1000 }; /* VM instructions for one batch */

enum part {
    PART_STAGE,
    PART_CURRICULUM,
    PART_NOISE,
    PART_MAPPING,
    PART_PAIR,
    PART_WEIGHT,
    PART_ADAPT,
    PART_LR,
    PART_DROPOUT,
    PART_TEACHER_EMA,
    PART_EMA,
    NPARTS
};
static const struct {
    const char *name;
    int args; /* before s */
    const char *show;
} parts[NPARTS] = {[PART_STAGE] = {"stage", 0, ""},
                   [PART_CURRICULUM] = {"curriculum", 0, ""},
                   [PART_NOISE] = {"noise", 1, "u=%s, "},
                   [PART_MAPPING] = {"mapping", 1, "t=%s, "},
                   [PART_PAIR] = {"pair", 1, "u=%s, "},
                   [PART_WEIGHT] = {"weight", 2, "t=%s, r=%s, "},
                   [PART_ADAPT] = {"adapt", 3, "t=%s, r=%s, d=%s, "},
                   [PART_LR] = {"lr", 0, ""},
                   [PART_DROPOUT] = {"dropout", 0, ""},
                   [PART_TEACHER_EMA] = {"teacher_ema", 0, ""},
                   [PART_EMA] = {"ema", 0, ""}};

struct function {
    enum part part;
    bool given; /* false: the setting is "none" */
    int ref;    /* in the registry, or LUA_NOREF for a constant */
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
    const double *a, *b, *c; /* arguments; NULL: fewer */
    double *out, *second;    /* second: of a pair, else NULL */
};

/* NULL if v is a value that this part may have (a: a mapping's t, or of a pair), else what is wrong with it. */
static const char *wrong_value(enum part part, double v, double a)
{
    if (isnan(v)) return "is nan";
    switch (part) {
    case PART_CURRICULUM:
        if (!(v >= 0 && v < 1e9 && v == floor(v))) return "must be a whole number from 0 on";
        break;
    case PART_PAIR:
        if (!(v > 0) || isinf(v)) return "must be a positive, finite noise level";
        break;
    case PART_ADAPT:
        if (isinf(v)) return "must be finite";
        break;
    case PART_TEACHER_EMA:
        if (!(v >= 0 && v <= 1)) return "must be in [0, 1]";
        break;
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

/* What is wrong with sample i, or NULL. *value: the one that is. */
static const char *wrong_sample(const struct batch *q, int i, double *value)
{
    *value = q->out[i];
    const char *why = wrong_value(q->f->part, q->out[i], q->a ? q->a[i] : 0);
    if (why || !q->second) return why;
    *value = q->second[i];
    return wrong_value(PART_MAPPING, q->second[i], q->out[i]);
}

/* "mapping(t=0.5, s) = nan: is nan (script.lua:8, step 3)" */
static int raise_value(lua_State *L, const struct batch *q, int i, const char *value, const char *why)
{
    const struct function *f = q->f;
    const double *const from[] = {q->a, q->b, q->c};
    char num[3][NUM_TEXT] = {"", "", ""};
    for (int j = 0; j < parts[f->part].args; j++) num_text(num[j], from[j][i]);
    const char *args = lua_pushfstring(L, parts[f->part].show, num[0], num[1], num[2]), *place = f->id;
    if (f->ref != LUA_NOREF && !strncmp(f->id, "lua:", 4)) {
        lua_Debug ar;
        lua_rawgeti(L, LUA_REGISTRYINDEX, f->ref);
        lua_getinfo(L, ">S", &ar);
        place = lua_pushfstring(L, "%s:%d", ar.source + 1, ar.linedefined);
    }
    return luaL_error(L, "%s: %s(%ss) = %s %s (step %I)", place, parts[f->part].name, args, value, why,
                      (lua_Integer)q->st->step);
}

static double result(lua_State *L, const struct batch *q, int i, int at)
{
    if (lua_type(L, at) != LUA_TNUMBER) raise_value(L, q, i, luaL_typename(L, at), "is not a number");
    return lua_tonumber(L, at);
}

static int batch_run(lua_State *L)
{
    const struct batch *q = lua_touserdata(L, 1);
    const double *const args[] = {q->a, q->b, q->c};
    int nargs = parts[q->f->part].args, results = q->second ? 2 : 1;
    state_write(L, q->st);
    lua_rawgeti(L, LUA_REGISTRYINDEX, q->f->ref);
    lua_getfield(L, LUA_REGISTRYINDEX, "ect.s");
    int f = lua_gettop(L) - 1;
    for (int i = 0; i < q->n; i++) {
        lua_pushvalue(L, f);
        for (int j = 0; j < nargs; j++) lua_pushnumber(L, args[j][i]);
        lua_pushvalue(L, f + 1);
        lua_call(L, nargs + 1, results);
        q->out[i] = result(L, q, i, -results);
        if (q->second) q->second[i] = result(L, q, i, -1);
        lua_pop(L, results);
    }
    return 0;
}

static int batch_check(lua_State *L)
{
    const struct batch *q = lua_touserdata(L, 1);
    char value[NUM_TEXT];
    double v;
    for (int i = 0; i < q->n; i++) {
        const char *why = wrong_sample(q, i, &v);
        if (why) return raise_value(L, q, i, num_text(value, v), why);
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

static err_t evaluate(struct bound *b, const struct batch *q)
{
    double v;
    if (q->f->ref == LUA_NOREF) {
        for (int i = 0; i < q->n; i++) q->out[i] = q->f->constant;
    } else {
        TRY(batch_call(b->s, batch_run, q));
    }
    for (int i = 0; i < q->n; i++) {
        if (wrong_sample(q, i, &v)) return batch_call(b->s, batch_check, q);
    }
    return ERR_OK;
}

/* ---- struct design -------------------------------------------------------------------------------------------------------------- */

/* A number from counters alone. */
static err_t scalar(struct bound *b, const struct function *f, const struct design_state *st, double *out)
{
    const struct batch q = {.f = f, .st = st, .n = 1, .out = out};
    return evaluate(b, &q);
}

static err_t call_stage(void *ctx, const struct design_state *st, int *stage)
{
    struct bound *b = ctx;
    double v;
    TRY(scalar(b, &b->f[PART_STAGE], st, &v));
    *stage = (int)v;
    return ERR_OK;
}
static err_t call_curriculum(void *ctx, const struct design_state *st, double *N)
{
    struct bound *b = ctx;
    return scalar(b, &b->f[PART_CURRICULUM], st, N);
}
static err_t call_noise(void *ctx, const struct design_state *st, int n, const double *u, double *t)
{
    struct bound *b = ctx;
    return evaluate(b, &(struct batch){.f = &b->f[PART_NOISE], .st = st, .n = n, .a = u, .out = t});
}
static err_t call_mapping(void *ctx, const struct design_state *st, int n, const double *t, double *r)
{
    struct bound *b = ctx;
    return evaluate(b, &(struct batch){.f = &b->f[PART_MAPPING], .st = st, .n = n, .a = t, .out = r});
}
static err_t call_pair(void *ctx, const struct design_state *st, int n, const double *u, double *t, double *r)
{
    struct bound *b = ctx;
    return evaluate(b, &(struct batch){.f = &b->f[PART_PAIR], .st = st, .n = n, .a = u, .out = t, .second = r});
}
static err_t call_weight(void *ctx, const struct design_state *st, int n, const double *t, const double *r, double *w)
{
    struct bound *b = ctx;
    return evaluate(b, &(struct batch){.f = &b->f[PART_WEIGHT], .st = st, .n = n, .a = t, .b = r, .out = w});
}
static err_t call_adapt(void *ctx, const struct design_state *st, int n, const double *t, const double *r,
                        const double *d, double *a)
{
    struct bound *b = ctx;
    return evaluate(b, &(struct batch){.f = &b->f[PART_ADAPT], .st = st, .n = n, .a = t, .b = r, .c = d, .out = a});
}
static err_t call_lr(void *ctx, const struct design_state *st, double *lr)
{
    struct bound *b = ctx;
    return scalar(b, &b->f[PART_LR], st, lr);
}
static err_t call_dropout(void *ctx, const struct design_state *st, double *p)
{
    struct bound *b = ctx;
    return scalar(b, &b->f[PART_DROPOUT], st, p);
}
static err_t call_teacher_ema(void *ctx, const struct design_state *st, double *mu)
{
    struct bound *b = ctx;
    return scalar(b, &b->f[PART_TEACHER_EMA], st, mu);
}
static err_t call_ema(void *ctx, const struct design_state *st, int i, double *beta)
{
    struct bound *b = ctx;
    return scalar(b, &b->ema[i], st, beta);
}

/* Takes the function or number on top of the stack. */
static void function_take(struct script *s, struct function *f, enum part part, const char *id)
{
    f->part = part;
    f->given = true;
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
    const char *const text[NPARTS] = {[PART_STAGE] = spec->stage.id,     [PART_CURRICULUM] = spec->curriculum.id,
                                      [PART_NOISE] = spec->noise.id,     [PART_MAPPING] = spec->mapping.id,
                                      [PART_PAIR] = spec->pair.id,       [PART_WEIGHT] = spec->weight.id,
                                      [PART_ADAPT] = spec->adapt.id,     [PART_LR] = spec->lr.id,
                                      [PART_DROPOUT] = spec->dropout.id, [PART_TEACHER_EMA] = spec->teacher_ema.id};
    for (int i = 0; i < PART_EMA; i++) {
        if (!strcmp(text[i], "none")) continue;
        TRY(find_function(b->s, parts[i].name, text[i]));
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
                           .curriculum = call_curriculum,
                           .noise = call_noise,
                           .mapping = call_mapping,
                           .pair = b->f[PART_PAIR].given ? call_pair : NULL,
                           .weight = call_weight,
                           .adapt = b->f[PART_ADAPT].given ? call_adapt : NULL,
                           .lr = call_lr,
                           .dropout = call_dropout,
                           .teacher_ema = call_teacher_ema,
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

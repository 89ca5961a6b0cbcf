/* pareto: which cells of a sweep no other cell beats in all objectives. Objectives are means over the replicates that are done. A key is
 * a column of v_run (flops_total, seconds, ...) or METRIC@NFE of an evaluation after the last step, such as fd_random@2 or
 * fd_pixel@heun35. Values of different evaluators or weights are never mixed. */
#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/metrics/metric.h"
#include "runner/runner.h"

enum { KEYS = 4, GROUPS = 64 };

struct objective {
    char name[96];
    bool minimise, is_eval;
    char metric[48], sampler[24];
    int nfe; /* 0: as the group says */
};
struct point {
    const char *cell, *group;
    int n;
    double v[KEYS];
    bool on;
};
struct front {
    struct ledger *l;
    int64_t sweep;
    const char *ema, *samples, *by;
    struct objective key[KEYS];
    int nkeys, npoints;
    struct point *points;
    struct arena mem;
};

static const char *const columns[] = {"flops_executed", "flops_nominal", "flops_ancestors", "flops_total",
                                      "units_paper",    "seconds",       "images_per_s",    "step"};

/* Where NFE begins in "35", "heun35" or "dpmpp-2m35": a sampler's name may have digits, but ends in none. */
static const char *nfe_of(const char *text)
{
    const char *end = text + strlen(text);
    while (end > text && isdigit((unsigned char)end[-1])) end--;
    return end;
}

/* "fd_pixel@heun35" */
static err_t parse_key(struct front *f, const char *key, bool minimise)
{
    struct objective *o = &f->key[f->nkeys];
    if (f->nkeys == KEYS) return fail(ERR_USAGE, "at most %d objectives", KEYS);
    *o = (struct objective){.minimise = minimise, .sampler = "ect"};
    snprintf(o->name, sizeof o->name, "%s", key);
    f->nkeys++;
    for (size_t i = 0; i < ARRAY_LEN(columns); i++)
        if (!strcmp(key, columns[i])) return ERR_OK;
    const char *at = strchr(key, '@');
    bool group_nfe = f->by && !strcmp(f->by, "nfe");
    o->is_eval = true;
    snprintf(o->metric, sizeof o->metric, "%.*s", (int)(at ? at - key : (long)strlen(key)), key);
    struct metric full; /* "fid" is recorded as fid:pytorch */
    if (!metric_parse(o->metric, &full)) snprintf(o->metric, sizeof o->metric, "%s", full.name);
    if (at && !group_nfe) {
        const char *digits = nfe_of(at + 1);
        if (digits > at + 1) snprintf(o->sampler, sizeof o->sampler, "%.*s", (int)(digits - at - 1), at + 1);
        o->nfe = atoi(digits);
    }
    if (o->nfe > 0 || group_nfe) return ERR_OK;
    const char *near = nearest_name(key, columns, ARRAY_LEN(columns));
    if (near) return fail(ERR_USAGE, "unknown key %s; did you mean %s?", key, near);
    return fail(ERR_USAGE,
                "%s: neither a column of v_run (flops_total, seconds, ...) nor METRIC@NFE such as fd_random@2", key);
}

static err_t parse_keys(struct front *f, const struct args *a)
{
    f->by = args_get(a, "by");
    f->ema = args_get(a, "ema");
    f->samples = args_get(a, "samples");
    for (int i = 0; i < a->nset; i++) {
        const char *name = a->set[i].opt->name;
        if (!strcmp(name, "min") || !strcmp(name, "max")) TRY(parse_key(f, a->set[i].value, !strcmp(name, "min")));
    }
    if (f->nkeys < 2)
        return fail(ERR_USAGE, "pareto: at least two objectives, such as --min flops_total --min fd_random@2");
    return ERR_OK;
}

static err_t find_sweep(struct front *f, const char *name)
{
    struct table t;
    TRY(query(f->l, &t,
              "SELECT sweep_id FROM v_sweep WHERE ?1 IS NULL OR sweep = ?1"
              " ORDER BY json_extract(declared, '$.kind') = 'sweep' DESC, created DESC, sweep_id DESC LIMIT 1",
              "s", name));
    err_t err =
        t.nrows ? ERR_OK
                : fail(ERR_NOT_FOUND, name ? "no sweep named %s" : "the ledger holds no sweep%.0s", name ? name : "");
    if (!err) f->sweep = (int64_t)table_at(&t, 0, 0)->num;
    table_done(&t);
    return err;
}

/* The points: cells, split by a factor or by the number of evaluations. */
static err_t list_points(struct front *f)
{
    struct table t;
    bool by_nfe = f->by && !strcmp(f->by, "nfe");
    if (by_nfe)
        TRY(query(f->l, &t,
                  "SELECT t.cell, CASE e.sampler WHEN 'ect' THEN '' ELSE e.sampler END || e.nfe AS grp FROM v_trial t "
                  "JOIN v_run r ON r.run = t.run JOIN v_eval e "
                  "ON e.run = r.run"
                  " AND e.step = r.iters WHERE t.sweep_id = ? AND r.status = 'done' GROUP BY t.cell, e.sampler, e.nfe"
                  " ORDER BY min(t.ordinal), e.sampler, e.nfe",
                  "i", f->sweep));
    else
        TRY(query(f->l, &t,
                  "SELECT t.cell, json_extract(t.factors, '$.\"' || ?2 || '\"') AS grp FROM v_trial t JOIN v_run r ON "
                  "r.run = t.run"
                  " WHERE t.sweep_id = ?1 AND r.status = 'done' GROUP BY t.cell ORDER BY min(t.ordinal)",
                  "is", f->sweep, f->by ? f->by : ""));
    f->points = mem_array((size_t)t.nrows + 1, sizeof *f->points);
    bool grouped = !f->by || !t.nrows;
    for (int i = 0; i < t.nrows; i++) {
        struct point *p = &f->points[f->npoints++];
        p->cell = arena_strdup(&f->mem, table_at(&t, i, 0)->text);
        p->group = arena_strdup(&f->mem, table_at(&t, i, 1)->text);
        grouped = grouped || *p->group;
    }
    table_done(&t);
    return grouped ? ERR_OK : fail(ERR_USAGE, "--by %s: neither nfe nor a factor of the sweep", f->by);
}

static err_t column_value(struct front *f, const struct objective *o, struct point *p, double *v)
{
    struct table t;
    char *sql = mem_printf(
        "SELECT avg(r.%s), count(*) FROM v_trial t JOIN v_run r ON r.run = t.run WHERE t.sweep_id = ? AND t.cell = ?"
        " AND r.status = 'done'",
        o->name);
    err_t err = query(f->l, &t, sql, "is", f->sweep, p->cell);
    mem_free(sql);
    if (err) return err;
    *v = table_at(&t, 0, 0)->num;
    p->n = (int)table_at(&t, 0, 1)->num;
    table_done(&t);
    return ERR_OK;
}

static err_t eval_value(struct front *f, const struct objective *o, struct point *p, double *v)
{
    struct table t;
    char sampler[24];
    int nfe = o->nfe;
    snprintf(sampler, sizeof sampler, "%s", o->sampler);
    if (!nfe) { /* the group is NFE after a sampler that is not ect */
        size_t n = (size_t)(nfe_of(p->group) - p->group);
        if (n) snprintf(sampler, sizeof sampler, "%.*s", (int)n, p->group);
        nfe = atoi(p->group + n);
    }
    TRY(query(f->l, &t,
              "SELECT avg(e.value), count(*), count(DISTINCT e.evaluator || e.weights), count(e.value),"
              " group_concat(DISTINCT e.weights || ' of ' || e.samples || ' samples, seed ' || e.seed)"
              " FROM v_trial t JOIN v_run r ON r.run = t.run JOIN v_eval e ON e.run = r.run AND e.step = r.iters"
              " WHERE t.sweep_id = ?1 AND t.cell = ?2 AND r.status = 'done' AND e.metric = ?3 AND e.sampler = ?4 AND "
              "e.nfe = ?5"
              " AND (?6 IS NULL OR e.weights = ?6) AND (?7 IS NULL OR e.samples = CAST(?7 AS INTEGER))",
              "isssiss", f->sweep, p->cell, o->metric, sampler, (int64_t)nfe, f->ema, f->samples));
    err_t err = ERR_OK;
    if (table_at(&t, 0, 2)->num > 1)
        err = fail(ERR_USAGE, "%s of %s has several values: weights %s; choose with --ema and --samples", o->name,
                   p->cell, table_at(&t, 0, 4)->text);
    *v = table_at(&t, 0, 3)->num < table_at(&t, 0, 1)->num ? NAN : table_at(&t, 0, 0)->num;
    p->n = (int)table_at(&t, 0, 1)->num;
    table_done(&t);
    return err;
}

/* One evaluator for a column of numbers, across all cells. */
static err_t check_evaluators(struct front *f, const struct objective *o)
{
    struct table t;
    if (!o->nfe) return ERR_OK;
    TRY(query(f->l, &t,
              "SELECT count(DISTINCT e.evaluator || e.weights), count(*) FROM v_trial t JOIN v_run r ON r.run = t.run"
              " JOIN v_eval e ON e.run = r.run AND e.step = r.iters WHERE t.sweep_id = ?1 AND r.status = 'done' AND "
              "e.metric = ?2"
              " AND e.sampler = ?3 AND e.nfe = ?4 AND (?5 IS NULL OR e.weights = ?5)"
              " AND (?6 IS NULL OR e.samples = CAST(?6 AS INTEGER))",
              "ississ", f->sweep, o->metric, o->sampler, (int64_t)o->nfe, f->ema, f->samples));
    err_t err = ERR_OK;
    if (!table_at(&t, 0, 1)->num) err = fail(ERR_NOT_FOUND, "no finished run of the sweep has %s", o->name);
    else if (table_at(&t, 0, 0)->num > 1)
        err =
            fail(ERR_USAGE,
                 "%s comes from several evaluators or weights in this sweep; choose with --ema and --samples", o->name);
    table_done(&t);
    return err;
}

static err_t fill_points(struct front *f)
{
    for (int k = 0; k < f->nkeys; k++) {
        const struct objective *o = &f->key[k];
        if (o->is_eval) TRY(check_evaluators(f, o));
        for (int i = 0; i < f->npoints; i++)
            TRY(o->is_eval ? eval_value(f, o, &f->points[i], &f->points[i].v[k])
                           : column_value(f, o, &f->points[i], &f->points[i].v[k]));
    }
    return ERR_OK;
}

/* A front of its own for each group. */
static void mark_front(struct front *f)
{
    double *obj = mem_array((size_t)f->npoints * KEYS + 1, sizeof *obj);
    int *index = mem_array((size_t)f->npoints + 1, sizeof *index);
    bool *on = mem_array((size_t)f->npoints + 1, sizeof *on), *seen = mem_array((size_t)f->npoints + 1, sizeof *seen),
         min[KEYS];
    for (int k = 0; k < f->nkeys; k++) min[k] = f->key[k].minimise;
    for (int i = 0; i < f->npoints; i++) {
        int n = 0;
        if (seen[i]) continue;
        for (int j = i; j < f->npoints; j++) {
            if (strcmp(f->points[i].group, f->points[j].group)) continue;
            seen[j] = true;
            memcpy(obj + n * f->nkeys, f->points[j].v, (size_t)f->nkeys * sizeof *obj);
            index[n++] = j;
        }
        pareto_front(n, f->nkeys, obj, min, on);
        for (int j = 0; j < n; j++) f->points[index[j]].on = on[j];
    }
    mem_free(obj);
    mem_free(index);
    mem_free(on);
    mem_free(seen);
}

static struct cell text_cell(const char *s)
{
    return (struct cell){.text = s, .num = NAN, .kind = CELL_TEXT, .bytes = strlen(s)};
}

static struct cell number_cell(struct arena *mem, double v, bool whole)
{
    char buf[NUM_TEXT];
    if (isnan(v)) return (struct cell){.text = "", .num = NAN, .kind = CELL_NULL};
    const char *s = arena_strdup(mem, num_text(buf, v));
    return (struct cell){.text = s, .num = v, .kind = whole ? CELL_INT : CELL_REAL, .bytes = strlen(s)};
}

static int by_first(const void *a, const void *b)
{
    const struct point *x = a, *y = b;
    int g = strcmp(x->group, y->group);
    return g ? g : (x->v[0] > y->v[0]) - (x->v[0] < y->v[0]);
}

static void print_front(const struct args *a, struct front *f)
{
    struct table t = {.nrows = 0};
    int c = 0, width = 3 + (f->by != NULL) + f->nkeys;
    qsort(f->points, (size_t)f->npoints, sizeof *f->points, by_first);
    arena_init(&t.mem);
    t.cols = arena_alloc(&t.mem, (size_t)width * sizeof *t.cols);
    t.cells = mem_array((size_t)width * (size_t)f->npoints + 1, sizeof *t.cells);
    t.cols[c++] = "front";
    t.cols[c++] = "cell";
    if (f->by) t.cols[c++] = f->by;
    t.cols[c++] = "n";
    for (int k = 0; k < f->nkeys; k++) t.cols[c++] = f->key[k].name;
    t.ncols = c;
    for (int i = 0; i < f->npoints; i++) {
        const struct point *p = &f->points[i];
        struct cell *row = t.cells + (size_t)t.nrows * (size_t)t.ncols;
        if (args_has(a, "front") && !p->on) continue;
        c = 0;
        row[c++] = text_cell(p->on ? "*" : "");
        row[c++] = text_cell(p->cell);
        if (f->by) row[c++] = text_cell(p->group);
        row[c++] = number_cell(&t.mem, p->n, true);
        for (int k = 0; k < f->nkeys; k++) row[c++] = number_cell(&t.mem, p->v[k], false);
        t.nrows++;
    }
    print_table(a, &t);
    table_done(&t);
}

static err_t pareto_run(struct args *a)
{
    struct front f = {.nkeys = 0};
    TRY(parse_keys(&f, a));
    TRY(args_open_ledger(a, LEDGER_READ, &f.l));
    arena_init(&f.mem);
    err_t err = find_sweep(&f, args_get(a, "sweep"));
    if (!err) err = list_points(&f);
    if (!err) err = fill_points(&f);
    if (!err) {
        mark_front(&f);
        print_front(a, &f);
    }
    mem_free(f.points);
    arena_done(&f.mem);
    ledger_close(f.l);
    return err;
}

static const struct opt pareto_opts[] = {{"min", 0, "KEY", "smaller is better (may be repeated)"},
                                         {"max", 0, "KEY", "larger is better"},
                                         {"by", 0, "nfe|FACTOR", "a front of its own for each"},
                                         {"sweep", 0, "NAME", "which sweep (default: the newest)"},
                                         {"ema", 0, "NAME", "of evaluations with these weights"},
                                         {"samples", 0, "N", "of evaluations with so many samples"},
                                         {"front", 0, NULL, "only what is on the front"},
                                         OPT_LEDGER,
                                         OPT_JSON,
                                         OPT_END};
const struct command cmd_pareto = {
    .name = "pareto",
    .args = "--min KEY --min KEY",
    .help = "cells that no other cell beats, over means of replicates",
    .opts = pareto_opts,
    .more = "KEY: flops_total, seconds, units_paper, ... (columns of v_run) or METRIC@NFE, such as fd_random@2.",
    .run = pareto_run};

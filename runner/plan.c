#include "runner/plan.h"

#include <string.h>

#include "core/ema.h"
#include "core/init.h"
#include "core/metrics/weights.h"
#include "core/rng.h"
#include "core/train.h"
#include "db/query.h"

const struct script_cell *plan_cell(const struct plan *p, const struct job *j)
{
    return script_cell_at(p->script, j->cell);
}

int plan_count(const struct plan *p, enum job_state s)
{
    int n = 0;
    for (int i = 0; i < p->njobs; i++) n += p->jobs[i].state == s;
    return n;
}

/* ---- the list ------------------------------------------------------------------------------------------------------------ */

static int find_job(const struct plan *p, const char *id)
{
    for (int i = p->njobs - 1; i >= 0; i--)
        if (!strcmp(p->jobs[i].id, id)) return i;
    return -1;
}

/* Adds replicate k of a cell, its ancestors first. */
static err_t add_job(struct plan *p, int cell, int k, int depth, int *index)
{
    const struct script_cell *c = script_cell_at(p->script, cell);
    struct job j = {.cell = cell, .replicate = k, .parent = -1, .iters = c->spec.iters};
    if (depth > 64) return fail(ERR_USAGE, "%s, cell %s: a chain of more than 64 prerequisites", c->sweep, c->cell);
    ledger_run_id(c->hash, k, j.id);
    *index = find_job(p, j.id);
    if (*index >= 0) return ERR_OK;
    if (c->parent >= 0) {
        const struct script_cell *up = script_cell_at(p->script, c->parent);
        if (k > up->replicates)
            return fail(ERR_USAGE, "%s, cell %s: replicate %d starts from replicate %d of %s, which has %d", c->sweep,
                        c->cell, k, k, up->sweep, up->replicates);
        TRY(add_job(p, c->parent, k, depth + 1, &j.parent));
    }
    if (p->njobs == p->cap) {
        int cap = p->cap ? 2 * p->cap : 64;
        p->jobs = mem_grow(p->jobs, (size_t)p->cap * sizeof *p->jobs, (size_t)cap * sizeof *p->jobs);
        p->cap = cap;
    }
    *index = p->njobs;
    p->jobs[p->njobs++] = j;
    return ERR_OK;
}

/* Evaluations name EMAs of the run; a wrong name must be seen before hours of training, not after. */
static err_t check_evals(struct plan *p, int cell)
{
    const struct script_cell *c = script_cell_at(p->script, cell);
    struct design d;
    const char *names[DESIGN_EMAS + 1] = {"raw"};
    size_t n = 1;
    TRY(script_design(p->script, cell, &d));
    for (int i = 0; i < d.nemas; i++) names[n++] = d.ema_name[i];
    for (int e = 0; e < c->nevals; e++) {
        const char *want = c->evals[e].eval_ema.s, *near;
        double std;
        TRY(ema_weights_width(want, &std));
        if (std > 0 && c->spec.posthoc_snapshots < 1)
            return fail(ERR_USAGE, "%s, cell %s: eval.ema = %s needs snapshots: set posthoc.snapshots = 16, say",
                        c->sweep, c->cell, want);
        bool known = std > 0;
        for (size_t i = 0; i < n; i++) known |= !strcmp(names[i], want);
        if (known) continue;
        near = nearest_name(want, names, n);
        return fail(ERR_USAGE, "%s, cell %s: eval.ema = %s, but the run has no such EMA; did you mean %s?", c->sweep,
                    c->cell, want, near ? near : names[n - 1]);
    }
    return ERR_OK;
}

/* A loss may need a published network: that too must be seen before anything is recorded. */
static err_t check_weights(const struct script_cell *c)
{
    char *path;
    if (strcmp(c->spec.metric.s, "lpips") != 0) return ERR_OK;
    err_t err = weights_find("lpips-vgg", &path);
    if (err) return fail_in(err, "%s, cell %s: metric = lpips", c->sweep, c->cell);
    mem_free(path);
    return ERR_OK;
}

/* What init.weights would choose from, as the worker has it (worker.c, find_init). */
static err_t check_init(const struct script_cell *c)
{
    if (c->init_path || !strcmp(c->spec.init_weights.s, "auto")) return ERR_OK;
    return fail(ERR_USAGE, "init.weights = %s: it chooses among the weights of a file, and init is none",
                c->spec.init_weights.s);
}

static err_t check_parent(struct plan *p, const struct script_cell *c, const struct dataset *d)
{
    const struct script_cell *up = script_cell_at(p->script, c->parent);
    struct dataset *up_data;
    TRY(lab_data(p->lab, up->spec.data.s, &up_data));
    return train_check_parent(&c->spec, d, &up->spec, up_data);
}

/* Whatever would stop every run of a cell before its first step is refused here, before anything is recorded. */
static err_t check_training(struct plan *p, int cell, const struct dataset *d)
{
    const struct script_cell *c = script_cell_at(p->script, cell);
    struct design design;
    struct init_report r = {.kind = ""};
    TRY(script_design(p->script, cell, &design));
    err_t err = check_init(c);
    if (!err)
        err = train_check(&c->spec, &design, d, c->init_path, c->spec.init_weights.s,
                          c->init_path != NULL || c->parent >= 0, &r);
    if (!err && c->parent >= 0 && !c->init_path) err = check_parent(p, c, d);
    init_report_done(&r);
    if (!err) return ERR_OK;
    if (err == ERR_FORMAT || err == ERR_NOT_FOUND || err == ERR_FAILED) err = ERR_USAGE; /* a wrong file or function */
    char *text = mem_strdup(err_text());
    text[strcspn(text, "\n")] = '\0'; /* a traceback tells nothing of a constant, and the line is in front of it */
    err = fail(err, "%s, cell %s: %s", c->sweep, c->cell, text);
    mem_free(text);
    return err;
}

static err_t list_jobs(struct plan *p)
{
    p->ncells = script_ncells(p->script);
    p->evals = mem_array((size_t)p->ncells + 1, sizeof *p->evals);
    for (int cell = 0; cell < p->ncells; cell++) {
        const struct script_cell *c = script_cell_at(p->script, cell);
        struct dataset *d;
        int ignored;
        TRY(check_evals(p, cell));
        TRY(check_weights(c));
        TRY(lab_data(p->lab, c->spec.data.s, &d));
        TRY(check_training(p, cell, d));
        TRY(eval_list_of(&p->evals[cell], p->script, c->hash, d));
        for (int k = 1; k <= c->replicates; k++) TRY(add_job(p, cell, k, 0, &ignored));
    }
    if (!p->njobs) return fail(ERR_USAGE, "the script declares no run and no sweep");
    return ERR_OK;
}

static err_t plan_begin(struct plan *p, struct lab *lab, const char *path)
{
    *p = (struct plan){.lab = lab};
    const char *slash = path ? strrchr(path, '/') : NULL;
    p->dir = slash ? mem_printf("%.*s", (int)(slash - path), path) : mem_strdup(".");
    if (!*p->dir) p->dir[0] = '/';
    return ERR_OK;
}

err_t plan_open(struct plan *p, struct lab *lab, const char *path, const char *const *sets, int nsets)
{
    if (!file_exists(path)) return fail(ERR_USAGE, "no script at %s", path);
    TRY(plan_begin(p, lab, path));
    TRY(script_open(&p->script, path, NULL, sets, nsets, &lab->host));
    return list_jobs(p);
}

err_t plan_open_recipe(struct plan *p, struct lab *lab, const char *recipe, const char *const *sets, int nsets)
{
    TRY(plan_begin(p, lab, NULL));
    TRY(script_recipe(&p->script, recipe, sets, nsets, &lab->host));
    return list_jobs(p);
}

void plan_close(struct plan *p)
{
    for (int i = 0; i < p->njobs; i++) mem_free(p->jobs[i].reason);
    mem_free(p->jobs);
    for (int i = 0; i < p->ncells; i++) eval_list_done(&p->evals[i]);
    mem_free(p->evals);
    if (p->script) script_close(p->script);
    mem_free(p->dir);
    *p = (struct plan){.njobs = 0};
}

/* ---- rows ---------------------------------------------------------------------------------------------------------------- */

static err_t put_config(struct ledger *l, const struct script_cell *c)
{
    struct ledger_param *params = mem_array((size_t)spec_nfields, sizeof *params);
    struct text *text = mem_array((size_t)spec_nfields, sizeof *text), canon = {0};
    static const char *const class[] = {[SPEC_TRAIN] = "train", [SPEC_EVAL] = "eval", [SPEC_EXEC] = "exec"};
    for (int i = 0; i < spec_nfields; i++) {
        const struct spec_field *f = &spec_fields[i];
        const struct spec *from = f->class == SPEC_EVAL && c->nevals ? &c->evals[0] : &c->spec;
        spec_get(from, f, &text[i]);
        params[i] = (struct ledger_param){f->key, text_str(&text[i]), class[f->class], spec_is_default(from, f)};
    }
    spec_canon(&c->spec, SPEC_TRAIN, &canon);
    err_t err = ledger_put_config(l, c->hash, text_str(&canon), params, spec_nfields);
    for (int i = 0; i < spec_nfields; i++) text_done(&text[i]);
    text_done(&canon);
    mem_free(text);
    mem_free(params);
    return err;
}

/* A design function's identity must always mean the same values: else some run in this ledger was made by another function. */
static err_t check_fingerprints(struct ledger *l, const struct script_cell *c, const char *run_id, bool write)
{
    const char *line = c->fingerprints ? c->fingerprints : "";
    while (*line) {
        size_t n = strcspn(line, "\n");
        const char *id = memchr(line, ' ', n), *values = id ? memchr(id + 1, ' ', n - (size_t)(id + 1 - line)) : NULL;
        if (values) {
            char *key = mem_printf("function:%.*s", (int)(values - id - 1), id + 1);
            char *text = mem_printf("%.*s", (int)(line + n - values - 1), values + 1);
            struct table t = {0};
            err_t err =
                query(l, &t, "SELECT run FROM v_provenance WHERE key = ? AND value <> ? LIMIT 1", "ss", key, text);
            if (!err && t.nrows)
                err = fail(
                    ERR_FAILED,
                    "%s, cell %s: %s gives other values than when run %s was made; give it another version or name",
                    c->sweep, c->cell, key, table_at(&t, 0, 0)->text);
            if (!err) table_done(&t);
            if (!err && write) err = ledger_provenance(l, run_id, key, text);
            mem_free(key);
            mem_free(text);
            if (err) return err;
        }
        line += n + (line[n] == '\n');
    }
    return ERR_OK;
}

static err_t put_run(struct plan *p, struct job *j)
{
    struct ledger *l = p->lab->ledger;
    const struct script_cell *c = plan_cell(p, j);
    struct ledger_run row;
    char id[RUN_ID_TEXT];
    bool created;
    err_t err = ledger_get_run(l, j->id, &row);
    if (!err) {
        ledger_run_done(&row);
        return ERR_OK;
    }
    if (err != ERR_NOT_FOUND) return err;
    struct dataset *d;
    struct train_cost cost;
    TRY(lab_data(p->lab, c->spec.data.s, &d));
    TRY(train_predict(&c->spec, d, &cost));
    TRY(put_config(l, c));
    struct ledger_run_new r = {.config_hash = c->hash,
                               .replicate = j->replicate,
                               .seed = rng_replicate_seed((uint64_t)c->spec.seed, j->replicate),
                               .parent_run = j->parent >= 0 ? p->jobs[j->parent].id : NULL,
                               .flops_nominal = cost.flops_nominal,
                               .flops_predicted = cost.flops_executed,
                               .units_paper = (double)cost.images * ((double)c->spec.net_blocks / 4) / 204.8e6,
                               .iters = c->spec.iters};
    TRY(ledger_put_run(l, &r, id, &created));
    if (strcmp(id, j->id)) return fail(ERR_FAILED, "run id %s differs from the expected %s", id, j->id);
    return check_fingerprints(l, c, id, true);
}

static err_t put_sweep(struct plan *p, int i, const char *script_sha, const char *path, const char *sets)
{
    struct ledger *l = p->lab->ledger;
    const struct script_sweep *w = script_sweep_at(p->script, i);
    struct ledger_sweep row = {.name = w->name,
                               .script_sha = script_sha,
                               .script_name = path,
                               .sets = sets,
                               .seed = w->seed,
                               .declared = w->declared};
    int64_t id;
    int count = 0;
    TRY(ledger_put_sweep(l, &row, &id));
    for (int cell = w->first; cell < w->first + w->ncells; cell++) {
        const struct script_cell *c = script_cell_at(p->script, cell);
        for (int k = 1; k <= c->replicates; k++) {
            char run[RUN_ID_TEXT];
            ledger_run_id(c->hash, k, run);
            struct ledger_trial t = {
                .sweep = id, .ordinal = count++, .cell = c->cell, .factors = c->factors, .replicate = k, .run_id = run};
            TRY(ledger_put_trial(l, &t));
            int j = find_job(p, run);
            if (j >= 0 && !p->jobs[j].sweep) p->jobs[j].sweep = id;
        }
    }
    return ledger_hide_trials_after(l, id, count);
}

static err_t put_all(struct plan *p, const char *path, const char *sets)
{
    const char *text = script_source(p->script);
    char sha[SHA256_TEXT];
    TRY(ledger_put_blob(p->lab->ledger, text, strlen(text), "text/x-lua", sha));
    for (int i = 0; i < p->njobs; i++) TRY(put_run(p, &p->jobs[i]));
    for (int i = 0; i < script_nsweeps(p->script); i++) TRY(put_sweep(p, i, sha, path, sets));
    return ERR_OK;
}

err_t plan_write(struct plan *p, const char *path, const char *const *sets, int nsets)
{
    struct text t = {0};
    for (int i = 0; i < nsets; i++) text_addf(&t, "%s\n", sets[i]);
    err_t err = ledger_begin(p->lab->ledger);
    if (!err) {
        err = put_all(p, path, text_str(&t));
        if (!err) err = ledger_commit(p->lab->ledger);
        else ledger_rollback(p->lab->ledger);
    }
    text_done(&t);
    return err;
}

/* ---- what is there ------------------------------------------------------------------------------------------------------- */

/* Is there a checkpoint file of that step? Rows tell which there were, the directory which are left. */
static bool kept_step(struct ledger *l, const char *run, const struct table *t, int64_t step)
{
    char *dir = ledger_run_dir(l, run);
    bool kept = false;
    for (int r = 0; r < t->nrows && !kept; r++) {
        if ((int64_t)table_at(t, r, 0)->num != step) continue;
        char *file = mem_printf("%s/%s", dir, table_at(t, r, 1)->text);
        kept = file_exists(file);
        mem_free(file);
    }
    mem_free(dir);
    return kept;
}

/* Of a finished run: evaluations that the ledger lacks, with and without a checkpoint to compute them from. */
static err_t read_evals(struct plan *p, struct job *j)
{
    struct ledger *l = p->lab->ledger;
    const struct eval_list *all = &p->evals[j->cell];
    struct table t = {0};
    bool asked = false;
    j->evals_missing = j->evals_lost = 0;
    for (int i = 0; i < all->n; i++) {
        const struct eval_item *x = &all->v[i];
        if (ledger_has_eval(l, j->id, x->step, x->weights, x->sha)) continue;
        if (!asked) TRY(query(l, &t, "SELECT step, file FROM v_checkpoint WHERE run = ?", "s", j->id));
        asked = true;
        if (kept_step(l, j->id, &t, x->step)) j->evals_missing++;
        else j->evals_lost++;
    }
    if (asked) table_done(&t);
    struct dataset *d;
    TRY(lab_data(p->lab, plan_cell(p, j)->spec.data.s, &d));
    if (j->evals_missing || (!j->evals_lost && controls_missing(l, d, all))) j->need = NEED_EVALS;
    return ERR_OK;
}

static err_t read_row(struct plan *p, struct job *j, const struct ledger_run *row)
{
    struct ledger *l = p->lab->ledger;
    bool stale;
    mem_free(j->reason);
    j->reason = row->reason && *row->reason ? mem_strdup(row->reason) : NULL;
    j->threads = row->attempt > 0 ? row->threads : 0;
    j->step = row->step;
    j->need = NEED_TRAINING;
    j->state = JOB_WAIT;
    switch (row->status) {
    case RUN_DONE:
        j->need = NEED_NOTHING;
        j->state = JOB_FINISHED;
        TRY(read_evals(p, j));
        if (j->need != NEED_NOTHING) j->state = JOB_WAIT;
        break;
    case RUN_RUNNING:
        if (ledger_run_alive(l, j->id)) j->state = JOB_ELSEWHERE;
        else if (!p->look_only) return ledger_reap(l, j->id, 0, &stale);
        break;
    case RUN_DIVERGED: j->state = JOB_DIVERGED; break;
    case RUN_FAILED: j->state = JOB_FAILED; break;
    case RUN_INTERRUPTED: j->state = JOB_INTERRUPTED; break;
    case RUN_BLOCKED: j->state = JOB_BLOCKED; break;
    case RUN_PENDING: break;
    }
    return ERR_OK;
}

err_t plan_read_job(struct plan *p, int i)
{
    struct job *j = &p->jobs[i];
    struct ledger_run row;
    j->state = JOB_WAIT;
    j->need = NEED_TRAINING;
    if (!p->lab->ledger) return ERR_OK;
    err_t err = ledger_get_run(p->lab->ledger, j->id, &row);
    if (err == ERR_NOT_FOUND) return ERR_OK;
    if (err) return err;
    err = read_row(p, j, &row);
    ledger_run_done(&row);
    /* between lock and claim, or evaluating: the row does not say so, the lock does */
    if (!err && j->state == JOB_WAIT && ledger_run_alive(p->lab->ledger, j->id)) j->state = JOB_ELSEWHERE;
    return err;
}

err_t plan_read(struct plan *p)
{
    for (int i = 0; i < p->njobs; i++) TRY(plan_read_job(p, i));
    return ERR_OK;
}

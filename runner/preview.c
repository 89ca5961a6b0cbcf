/* preview: what `ect run -n` shows: each cell, how far it is, and what the rest will cost. Time is predicted from images per second of
 * earlier runs on this machine with the same network and batch, or said to be unknown. */
#include <jansson.h>
#include <math.h>
#include <string.h>

#include "runner/machine.h"
#include "runner/study.h"

struct row { /* of a cell */
    const struct script_cell *c;
    int done, failed, missing, other, evals;
    double own, total;            /* FLOPs of one run; with its ancestors */
    double flops, seconds, bytes; /* of what is left to train */
};

/* Images per second of the latest done run here with the same network, target and batch; NaN if there is none. */
static err_t speed_of(struct plan *p, const struct script_cell *c, double *ips)
{
    struct table t = {0};
    char cpu[256];
    *ips = NAN;
    if (!p->lab->ledger) return ERR_OK;
    machine_cpu(cpu, sizeof cpu);
    static const char *const keys[] = {"net.width", "net.mult", "net.blocks", "net.attn"};
    struct text v[4] = {{0}};
    for (int i = 0; i < 4; i++) spec_get(&c->spec, spec_find(keys[i]), &v[i]);
    err_t err = query(
        p->lab->ledger, &t,
        "SELECT r.images_per_s FROM v_run r JOIN v_provenance m ON m.run = r.run AND m.key = 'cpu' AND m.value = ?"
        " WHERE r.status = 'done' AND r.images_per_s > 0 AND 6 = (SELECT count(*) FROM v_param q WHERE q.run = r.run "
        "AND"
        " (q.key, q.text) IN (VALUES ('net.width', ?), ('net.mult', ?), ('net.blocks', ?), ('net.attn', ?),"
        " ('data', ?), ('target', ?))) ORDER BY r.started DESC LIMIT 1",
        "sssssss", cpu, text_str(&v[0]), text_str(&v[1]), text_str(&v[2]), text_str(&v[3]), c->spec.data.s,
        c->spec.target.s);
    for (int i = 0; i < 4; i++) text_done(&v[i]);
    if (err) return err;
    if (t.nrows) *ips = table_at(&t, 0, 0)->num;
    table_done(&t);
    return ERR_OK;
}

static err_t chain_flops(struct plan *p, int cell, double *sum)
{
    *sum = 0;
    for (; cell >= 0; cell = script_cell_at(p->script, cell)->parent) {
        const struct script_cell *c = script_cell_at(p->script, cell);
        struct dataset *d;
        struct train_cost cost;
        TRY(lab_data(p->lab, c->spec.data.s, &d));
        TRY(train_predict(&c->spec, d, &cost));
        *sum += cost.flops_executed;
    }
    return ERR_OK;
}

static err_t cell_row(struct plan *p, int cell, struct row *r)
{
    const struct script_cell *c = script_cell_at(p->script, cell);
    struct dataset *d;
    struct train_cost cost;
    double ips;
    *r = (struct row){.c = c};
    TRY(lab_data(p->lab, c->spec.data.s, &d));
    TRY(train_predict(&c->spec, d, &cost));
    TRY(chain_flops(p, cell, &r->total));
    TRY(speed_of(p, c, &ips));
    r->own = cost.flops_executed;
    for (int k = 1; k <= c->replicates; k++) {
        char id[RUN_ID_TEXT];
        ledger_run_id(c->hash, k, id);
        for (int i = 0; i < p->njobs; i++) {
            const struct job *j = &p->jobs[i];
            if (strcmp(j->id, id)) continue;
            bool bad = j->state == JOB_FAILED || j->state == JOB_DIVERGED;
            r->done += j->state == JOB_FINISHED;
            r->failed += bad;
            r->evals += j->evals_missing;
            if (j->need == NEED_TRAINING && j->state != JOB_DIVERGED) {
                double left = 1 - (double)j->step / (double)c->spec.iters;
                r->missing += !bad;
                /* a cell that an earlier one already holds is trained once */
                if (j->cell != cell) continue;
                r->flops += left * cost.flops_executed;
                r->seconds += left * (double)cost.images / ips;
                r->bytes += cost.ckpt_bytes * (2 + eval_list_steps(&p->evals[cell], (int64_t[64]){0}, 64));
            }
        }
    }
    return ERR_OK;
}

/* A short run whose EMA still remembers the starting weights measures those weights, not the method. */
static err_t warn_ema(struct plan *p, int cell, struct text *out)
{
    const struct script_cell *c = script_cell_at(p->script, cell);
    struct design d;
    double memory[DESIGN_EMAS];
    TRY(script_design(p->script, cell, &d));
    TRY(script_ema_memory(p->script, cell, memory));
    for (int e = 0; e < d.nemas; e++)
        if (memory[e] > 0.01)
            text_addf(out,
                      "warning: %s, %s: after %lld steps EMA %s still holds %.0f %% of the starting weights; use a "
                      "power-function "
                      "EMA or beta = 0.5^(1/(0.02 iters))\n",
                      c->sweep, c->cell, (long long)c->spec.iters, d.ema_name[e], 100 * memory[e]);
    return ERR_OK;
}

static void state_text(const struct row *r, char *buf, size_t n)
{
    struct text t = {0};
    if (r->done) text_addf(&t, "%d done", r->done);
    if (r->failed) text_addf(&t, "%s%d failed", t.len ? ", " : "", r->failed);
    if (r->missing) text_addf(&t, "%s%d missing", t.len ? ", " : "", r->missing);
    if (r->evals) text_addf(&t, "%s%d evaluations missing", t.len ? ", " : "", r->evals);
    snprintf(buf, n, "%s", text_str(&t));
    text_done(&t);
}

static void print_rows(const struct row *rows, int n, int jobs, const struct text *warnings)
{
    double flops = 0, bytes = 0, seconds = 0;
    int wide_sweep = 5, wide_cell = 4;
    char a[NUM_TEXT], b[NUM_TEXT], c[NUM_TEXT], d[NUM_TEXT], state[128];
    for (int i = 0; i < n; i++) {
        if (text_columns(rows[i].c->sweep) > wide_sweep) wide_sweep = text_columns(rows[i].c->sweep);
        if (text_columns(rows[i].c->cell) > wide_cell) wide_cell = text_columns(rows[i].c->cell);
    }
    printf("%-*s  %-*s  reps  %-24s %10s %10s %14s %10s\n", wide_sweep, "sweep", wide_cell, "cell", "state", "FLOPs",
           "with init", "time left", "disk");
    for (int i = 0; i < n; i++) {
        const struct row *r = &rows[i];
        state_text(r, state, sizeof state);
        printf("%-*s  %-*s  %4d  %-24s %10s %10s %14s %10s\n", wide_sweep, r->c->sweep, wide_cell, r->c->cell,
               r->c->replicates, state, human_count(a, r->own), human_count(b, r->total),
               r->flops > 0 ? human_seconds(c, r->seconds) : "-", human_bytes(d, r->bytes));
        flops += r->flops;
        bytes += r->bytes;
        seconds += r->flops > 0 ? r->seconds : 0;
    }
    printf("left to train: %s FLOPs, ", human_count(a, flops));
    if (isnan(seconds)) printf("time unknown (no finished run of this network on this machine yet)");
    else
        printf("about %s of training, %d at once: %s; evaluations not counted", human_seconds(b, seconds), jobs,
               human_seconds(c, seconds / jobs));
    printf(", %s of checkpoints\n%s", human_bytes(d, bytes), text_str(warnings));
}

static void print_rows_json(const struct row *rows, int n, const struct text *warnings)
{
    json_t *list = json_array();
    for (int i = 0; i < n; i++) {
        const struct row *r = &rows[i];
        json_array_append_new(list,
                              json_pack("{s:s,s:s,s:s,s:i,s:i,s:i,s:i,s:i,s:f,s:f,s:o,s:f}", "sweep", r->c->sweep,
                                        "cell", r->c->cell, "config", r->c->hash, "replicates", r->c->replicates,
                                        "done", r->done, "failed", r->failed, "missing", r->missing, "evals_missing",
                                        r->evals, "flops_left", r->flops, "flops_total", r->total, "seconds_left",
                                        isfinite(r->seconds) ? json_real(r->seconds) : json_null(), "bytes", r->bytes));
    }
    json_t *o = json_pack("{s:o,s:s}", "cells", list, "warnings", text_str(warnings));
    json_dumpf(o, stdout, JSON_INDENT(1));
    putchar('\n');
    json_decref(o);
}

err_t preview_print(struct plan *p, int jobs, bool json)
{
    struct row *rows = mem_array((size_t)p->ncells + 1, sizeof *rows);
    struct text warnings = {0};
    err_t err = ERR_OK;
    text_add(&warnings, text_str(&p->lab->data_missing));
    for (int i = 0; i < p->ncells && !err; i++) {
        err = cell_row(p, i, &rows[i]);
        if (!err) err = warn_ema(p, i, &warnings);
    }
    if (!err && json) print_rows_json(rows, p->ncells, &warnings);
    else if (!err) print_rows(rows, p->ncells, jobs > 0 ? jobs : machine_cores(), &warnings);
    text_done(&warnings);
    mem_free(rows);
    return err;
}

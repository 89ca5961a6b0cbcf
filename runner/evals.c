#include "runner/evals.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/ema.h"
#include "core/nets.h"
#include "core/target.h"
#include "core/train.h"

void eval_list_done(struct eval_list *l)
{
    for (int i = 0; i < l->n; i++) mem_free(l->v[i].canon);
    mem_free(l->v);
    *l = (struct eval_list){.n = 0};
}

err_t eval_step(const char *at, int64_t iters, int64_t *step)
{
    char num[64];
    double v;
    size_t n = strlen(at);
    if (n && n < sizeof num && at[n - 1] == '%') {
        snprintf(num, sizeof num, "%.*s", (int)n - 1, at);
        if (num_parse(num, &v) && v > 0 && v <= 100) {
            *step = (int64_t)floor(v / 100 * (double)iters + 0.5);
            if (*step < 1) *step = 1;
            return ERR_OK;
        }
    } else if (int_parse(at, step) && *step >= 1 && *step <= iters) {
        return ERR_OK;
    }
    return fail(ERR_USAGE, "eval.at: %s is neither a percentage in 0..100%% nor a step in 1..%lld", at,
                (long long)iters);
}

err_t eval_request_init(struct eval_request *q, const struct spec *run, const struct spec *e, const char *metric,
                        int nfe)
{
    const struct sampler_info *info;
    TRY(sampler_find(e->eval_sampler.s, &info));
    const struct target *target = target_find(run->target.s);
    if (target && target->classifies)
        return fail(ERR_USAGE, "a network trained with target = classify gives no images to evaluate: leave eval out");
    if (target && info->flow != target->flow)
        return fail(ERR_USAGE, "eval.sampler = %s: a network trained with target = %s is %s", info->name, target->name,
                    target->flow ? "a velocity: flow-euler" : "a denoiser: ect, heun, euler, dpmpp-2m, ...");
    *q = (struct eval_request){
        .samples = e->eval_samples, .seed = (uint64_t)e->eval_seed, .shifted = info->shifted, .cond = run->net_cond};
    snprintf(q->metric, sizeof q->metric, "%s", metric);
    TRY(labels_parse(e->eval_labels.s, &q->labels));
    bool asked = q->labels.kind != LABELS_DATA && q->labels.kind != LABELS_NONE;
    if (!run->net_cond && asked)
        return fail(ERR_USAGE, "eval.labels = %s: this network takes no labels (net.cond = false)", e->eval_labels.s);
    if (strlen(e->eval_stats.s) >= sizeof q->stats)
        return fail(ERR_USAGE, "eval.stats: a path of more than %zu letters", sizeof q->stats - 1);
    strcpy(q->stats, e->eval_stats.s);
    if (q->stats[0] && !file_exists(q->stats))
        return fail(ERR_NO_DATA, "eval.stats: no file %s; `ect stats DATASET` makes one", q->stats);
    return sampler_from_spec(&q->sampler, e, nfe);
}

static bool has_item(const struct eval_list *l, const struct eval_item *x)
{
    for (int i = 0; i < l->n; i++)
        if (l->v[i].step == x->step && !strcmp(l->v[i].weights, x->weights) && !strcmp(l->v[i].sha, x->sha))
            return true;
    return false;
}

/* One name for one set of weights: posthoc:0.070 is posthoc:0.07. */
static err_t weights_name(const char *ema, char out[32])
{
    double std;
    char num[NUM_TEXT];
    TRY(ema_weights_width(ema, &std));
    if (std > 0) snprintf(out, 32, "posthoc:%.23s", num_text(num, std));
    else snprintf(out, 32, "%.31s", ema);
    return ERR_OK;
}

static err_t add_item(struct eval_list *l, const struct spec *run, const struct spec *e, const struct dataset *data,
                      int64_t step, const char *metric, int nfe)
{
    struct eval_item x = {.step = step};
    struct text canon = {0};
    char name[sizeof x.q.metric];
    err_t err = eval_metric_check(metric, data, name);
    if (err) return fail_in(err, "eval.metrics");
    TRY(weights_name(e->eval_ema.s, x.weights));
    TRY(eval_request_init(&x.q, run, e, name, nfe));
    if (x.q.cond) TRY(labels_check(&x.q.labels, data));
    eval_identity(&x.q, data, &canon, x.sha);
    if (has_item(l, &x)) {
        text_done(&canon);
        return ERR_OK;
    }
    if (l->n == l->cap) {
        int cap = l->cap ? 2 * l->cap : 16;
        l->v = mem_grow(l->v, (size_t)l->cap * sizeof *l->v, (size_t)cap * sizeof *l->v);
        l->cap = cap;
    }
    x.canon = mem_strdup(text_str(&canon));
    text_done(&canon);
    l->v[l->n++] = x;
    return ERR_OK;
}

err_t eval_list_add(struct eval_list *l, const struct spec *run, const struct spec *e, const struct dataset *data)
{
    for (int a = 0; a < e->eval_at.n; a++) {
        int64_t step;
        TRY(eval_step(e->eval_at.v[a], run->iters, &step));
        for (int n = 0; n < e->eval_nfe.n; n++)
            for (int m = 0; m < e->eval_metrics.n; m++)
                TRY(add_item(l, run, e, data, step, e->eval_metrics.v[m], (int)e->eval_nfe.v[n]));
    }
    return ERR_OK;
}

err_t eval_list_of(struct eval_list *l, const struct script *s, const char *config_hash, const struct dataset *data)
{
    for (int i = 0; i < script_ncells(s); i++) {
        const struct script_cell *c = script_cell_at(s, i);
        if (strcmp(c->hash, config_hash)) continue;
        for (int k = 0; k < c->nevals; k++) {
            err_t err = eval_list_add(l, &c->spec, &c->evals[k], data);
            if (err) return fail_in(err, "%s, cell %s", c->sweep, c->cell);
        }
    }
    return ERR_OK;
}

void eval_list_missing(struct eval_list *l, struct ledger *ledger, const char *run_id)
{
    int kept = 0;
    for (int i = 0; i < l->n; i++) {
        struct eval_item *x = &l->v[i];
        if (ledger && ledger_has_eval(ledger, run_id, x->step, x->weights, x->sha)) mem_free(x->canon);
        else l->v[kept++] = *x;
    }
    l->n = kept;
}

static int by_number(const void *a, const void *b)
{
    const int64_t *x = a, *y = b;
    return (*x > *y) - (*x < *y);
}

int eval_list_steps(const struct eval_list *l, int64_t *steps, int cap)
{
    int n = 0;
    for (int i = 0; i < l->n && n < cap; i++) {
        bool seen = false;
        for (int k = 0; k < n; k++) seen |= steps[k] == l->v[i].step;
        if (!seen) steps[n++] = l->v[i].step;
    }
    qsort(steps, (size_t)n, sizeof *steps, by_number);
    return n;
}

/* ---- computing -------------------------------------------------------------------------------------------------------- */

err_t sampling_open(struct sampling *s, const struct spec *spec, const struct dataset *data, const struct kernels *k,
                    struct kdev *dev)
{
    struct net_config net;
    err_t err = ERR_OK;
    *s = (struct sampling){.spec = spec, .data = data, .kernels = k, .dev = dev};
    TRY(train_net_config(spec, data, &net));
    s->graph = graph_new();
    TRYD(net_build(s->graph, &net));
    TRYD(params_new(&s->params, s->graph, k, dev));
    TRYD(eval_new(&s->eval, s->graph, data, k, dev));
done:
    if (err) sampling_close(s);
    return err;
}

void sampling_close(struct sampling *s)
{
    if (s->eval) eval_free(s->eval);
    if (s->params) params_free(s->params);
    if (s->graph) graph_free(s->graph);
    *s = (struct sampling){.spec = NULL};
}

/* An average that no checkpoint holds but the run's snapshots give. */
static err_t load_posthoc(struct sampling *s, const char *ckpt_dir, int64_t step, double std)
{
    char want[sizeof s->loaded], num[NUM_TEXT];
    snprintf(want, sizeof want, "%lld posthoc:%s", (long long)step, num_text(num, std));
    if (!strcmp(want, s->loaded)) return ERR_OK;
    s->loaded[0] = 0;
    TRY(ema_load(ckpt_dir, step, std, s->params, s->graph, NULL));
    memcpy(s->loaded, want, sizeof want);
    return ERR_OK;
}

err_t sampling_load(struct sampling *s, const char *ckpt_dir, int64_t step, const char *weights)
{
    char want[sizeof s->loaded];
    char *path = NULL;
    int64_t at;
    double std;
    TRY(ema_weights_width(weights, &std));
    if (std > 0) return load_posthoc(s, ckpt_dir, step, std);
    err_t err = train_find_checkpoint(ckpt_dir, step, &path, &at);
    if (err) return err;
    snprintf(want, sizeof want, "%lld %.31s", (long long)at, weights);
    if (strcmp(want, s->loaded)) {
        err = train_load_weights(path, weights, s->params, s->graph);
        if (!err) memcpy(s->loaded, want, sizeof want);
        else s->loaded[0] = 0;
    }
    mem_free(path);
    return err;
}

static bool same_samples(const struct eval_item *a, const struct eval_item *b)
{
    return a->step == b->step && !strcmp(a->weights, b->weights) && a->q.samples == b->q.samples &&
           a->q.seed == b->q.seed && a->q.shifted == b->q.shifted && a->q.cond == b->q.cond &&
           !strcmp(a->q.stats, b->q.stats) && a->q.labels.kind == b->q.labels.kind &&
           a->q.labels.class == b->q.labels.class && !memcmp(&a->q.sampler, &b->q.sampler, sizeof a->q.sampler);
}

enum { EVAL_TOGETHER = 8, KEEP_MS = 30000 };

/* One pass of sampling for items that share it; picks those from l that are not done yet, starting with the first such. */
static err_t run_group(struct lab *b, struct sampling *s, const char *run_id, const struct eval_list *l, bool *done,
                       const struct eval_watch *w)
{
    struct eval_request q[EVAL_TOGETHER];
    struct eval_value v[EVAL_TOGETHER];
    int item[EVAL_TOGETHER], n = 0, first = 0;
    while (done[first]) first++;
    for (int i = first; i < l->n && n < EVAL_TOGETHER; i++) {
        if (done[i] || !same_samples(&l->v[first], &l->v[i])) continue;
        q[n] = l->v[i].q;
        item[n++] = i;
        done[i] = true;
    }
    char *dir = ledger_run_dir(b->ledger, run_id), *ckpt = mem_printf("%s/ckpt", dir);
    char *state = mem_printf("%s/eval.part", dir);
    char *of = mem_printf("run=%s step=%lld weights=%s", run_id, (long long)l->v[first].step, l->v[first].weights);
    err_t err = sampling_load(s, ckpt, l->v[first].step, l->v[first].weights);
    if (err)
        err = fail_in(err, "evaluation at step %lld with weights %s", (long long)l->v[first].step, l->v[first].weights);
    struct eval_keep keep = {.path = state, .of = of, .every_ms = KEEP_MS};
    if (w) keep.stop = w->stop, keep.ctx = w->ctx;
    eval_keep(s->eval, &keep);
    if (!err) err = eval_run(s->eval, s->params, q, n, v, w ? w->samples : NULL, w ? w->ctx : NULL);
    eval_keep(s->eval, NULL);
    mem_free(of);
    mem_free(state);
    mem_free(ckpt);
    mem_free(dir);
    TRY(err);
    for (int k = 0; k < n; k++) {
        const struct eval_item *x = &l->v[item[k]];
        struct ledger_eval e = {.run_id = run_id,
                                .weights = x->weights,
                                .step = x->step,
                                .evaluator_sha = x->sha,
                                .evaluator_canon = x->canon,
                                .metric = x->q.metric,
                                .sampler = x->q.sampler.name,
                                .nfe = v[k].nfe,
                                .samples = x->q.samples,
                                .seed = x->q.seed,
                                .value = v[k].value,
                                .seconds = v[k].seconds,
                                .flops = v[k].flops};
        TRY(ledger_put_eval(b->ledger, &e));
    }
    return ERR_OK;
}

err_t evals_run(struct lab *b, struct sampling *s, const char *run_id, const struct eval_list *l,
                const struct eval_watch *w)
{
    bool *done = mem_array((size_t)l->n + 1, sizeof *done);
    char *missing = NULL;
    err_t err = ERR_OK;
    for (;;) {
        int count = 0;
        for (int i = 0; i < l->n; i++) count += done[i];
        if (w && w->told) w->told(w->ctx, count, l->n);
        if (count == l->n) break;
        if (w && w->stop && w->stop(w->ctx)) {
            err = fail(ERR_INTERRUPTED, "stopped between evaluations");
            goto done;
        }
        err = run_group(b, s, run_id, l, done, w);
        if (err == ERR_NOT_FOUND) {
            mem_free(missing);
            missing = mem_strdup(err_text());
        } else if (err) {
            goto done;
        }
    }
    err = missing ? fail(ERR_NOT_FOUND, "%s", missing) : ERR_OK;
done:
    mem_free(missing);
    mem_free(done);
    return err;
}

/* ---- controls --------------------------------------------------------------------------------------------------------- */

static const enum eval_control controls[] = {CONTROL_REAL_HALF, CONTROL_GAUSSIAN};

static const char *control_name(enum eval_control kind, const struct dataset *d)
{
    if (kind == CONTROL_GAUSSIAN) return "gaussian";
    return d->values ? "real_fresh" : "real_half";
}

/* A control belongs to a metric, its samples and seed, not to a sampler: its evaluator is that of one-step sampling, with a line
 * that says what stands in the samples' place. */
static void control_identity(const struct eval_item *x, const char *name, const struct dataset *d, struct text *canon,
                             char sha[SHA256_TEXT])
{
    struct eval_request q = x->q;
    char ignored[SHA256_TEXT];
    sampler_defaults(&q.sampler, "ect", 1);
    q.shifted = true;
    q.cond = false;
    text_addf(canon, "control=%s\n", name);
    eval_identity(&q, d, canon, ignored);
    sha256_text(text_str(canon), canon->len, sha);
}

/* The first item of each (metric, samples, seed) stands for it. Controls are of the data set: what is measured against statistics from a
 * file has none. */
static bool speaks_for_control(const struct eval_list *l, int i)
{
    if (l->v[i].q.stats[0]) return false;
    for (int k = 0; k < i; k++)
        if (!l->v[k].q.stats[0] && !strcmp(l->v[k].q.metric, l->v[i].q.metric) &&
            l->v[k].q.samples == l->v[i].q.samples && l->v[k].q.seed == l->v[i].q.seed)
            return false;
    return true;
}

static err_t control_put(struct lab *b, struct eval *e, const struct dataset *d, const struct eval_item *x,
                         enum eval_control kind)
{
    struct text canon = {0};
    char sha[SHA256_TEXT];
    err_t err = ERR_OK;
    control_identity(x, control_name(kind, d), d, &canon, sha);
    if (!ledger_has_control(b->ledger, d->sha, control_name(kind, d), sha)) {
        int64_t begin = host.mono_ns();
        struct ledger_eval v = {.run_id = "",
                                .weights = "",
                                .evaluator_sha = sha,
                                .evaluator_canon = text_str(&canon),
                                .metric = x->q.metric,
                                .sampler = control_name(kind, d),
                                .samples = x->q.samples,
                                .seed = x->q.seed};
        err = eval_control(e, kind, x->q.metric, x->q.samples, x->q.seed, &v.value);
        v.seconds = (double)(host.mono_ns() - begin) * 1e-9;
        if (!err) err = ledger_put_control(b->ledger, d->sha, control_name(kind, d), &v);
    }
    text_done(&canon);
    return err;
}

err_t controls_run(struct lab *b, struct eval *e, const struct dataset *d, const struct eval_list *l)
{
    for (int i = 0; i < l->n; i++)
        for (int k = 0; k < (int)ARRAY_LEN(controls); k++)
            if (speaks_for_control(l, i)) TRY(control_put(b, e, d, &l->v[i], controls[k]));
    return ERR_OK;
}

bool controls_missing(struct ledger *ledger, const struct dataset *d, const struct eval_list *l)
{
    bool missing = false;
    for (int i = 0; i < l->n; i++)
        for (size_t k = 0; k < ARRAY_LEN(controls) && speaks_for_control(l, i); k++) {
            struct text canon = {0};
            char sha[SHA256_TEXT];
            control_identity(&l->v[i], control_name(controls[k], d), d, &canon, sha);
            missing |= !ledger || !ledger_has_control(ledger, d->sha, control_name(controls[k], d), sha);
            text_done(&canon);
        }
    return missing;
}

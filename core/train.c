/* The loop. Nothing here remembers anything that is not in struct train_state or a function of counters: a step is (state, step number)
 * -> state, which is why stopping anywhere and going on gives the same bytes. */
#include "core/train.h"

#include <math.h>
#include <string.h>

#include "core/augment.h"
#include "core/ema.h"
#include "core/init.h"
#include "core/nets.h"
#include "core/optim.h"
#include "core/rng.h"
#include "core/train_ckpt.h"
#include "core/train_metrics.h"
#include "core/train_pass.h"
#include "core/train_plan.h"

enum { BAD_STEPS = 20 }; /* consecutive steps with more than BAD_SHARE non-finite gradient elements: diverged */
#define BAD_SHARE 0.01

struct trainer {
    const struct train_config *c;
    struct train_result *result;
    const struct spec *spec;
    const struct design *design;
    const struct kernels *k;
    struct kdev *dev;
    const struct target *target;
    enum { TEACHER_SELF, TEACHER_EMA, TEACHER_FROZEN } teacher; /* whose weights the r pass takes */
    struct net_config net;
    struct graph *graph;
    struct pass *pass;
    struct train_state state;
    struct optim_config optim;
    struct optim_scaler scaler;
    struct augmenter *augmenter; /* NULL: off */
    double squares;              /* of the last gradient, cleaned: their sum */
    struct step_plan plan[2];
    const struct step_plan *now; /* of the step on the device */
    struct arena host;
    int batch, rows, per; /* images of a step, of a micro-batch; elements of an image */
    size_t floats;        /* of an arena */
    float *grad;          /* device arena */
    uint8_t *pixels;      /* device: the data set, of images */
    float *values;        /* device: the data set, of points */
    int32_t *index;       /* host [rows] */
    uint8_t *flip;        /* host [rows] */
    int32_t *index_dev;
    uint8_t *flip_dev;
    float *onehot; /* host [rows, label_dim] */
    struct text canon;
    char hash[SHA256_TEXT];
    double totals[TOTALS];
    bool diverged;
    int64_t logged_ns, logged_step; /* of the last progress line */
};

/* ---- the network and its cost ------------------------------------------------------------------------------------------- */

static double sigma_data_of(const struct spec *s, const struct dataset *data)
{
    return s->sigma_data > 0 ? s->sigma_data : data->std;
}

err_t train_net_config(const struct spec *s, const struct dataset *data, struct net_config *net)
{
    if (data->h != data->w)
        return fail(ERR_USAGE, "data set %s has images of %dx%d: the networks need squares", data->name, data->h,
                    data->w);
    if (s->net_cond && !data->nclasses)
        return fail(ERR_USAGE, "net.cond = true, but data set %s has no labels", data->name);
    const struct target *target = target_find(s->target.s);
    TRY(net_config_from_spec(net, s, data->h, data->c, data->nclasses, sigma_data_of(s, data)));
    if (target && target->flow) net->precond = PRECOND_FLOW;
    bool convnet = !strcmp(net->family, "convnet");
    if (target && target->classifies != convnet)
        return fail(ERR_USAGE, convnet ? "net = convnet gives classes, not images: target = classify"
                                       : "target = classify needs a network that gives classes: net = convnet");
    return ERR_OK;
}

/* The setting's text is a list of name=function, separated by blanks. */
static int count_emas(const char *text)
{
    int n = 0;
    for (; *text; text++) n += *text != ' ' && (text[1] == ' ' || !text[1]);
    return n;
}

err_t train_predict(const struct spec *s, const struct dataset *data, struct train_cost *out)
{
    struct net_config net;
    const struct target *target = target_find(s->target.s);
    memset(out, 0, sizeof *out);
    if (!target) return fail(ERR_USAGE, "unknown target '%s'", s->target.s);
    TRY(train_net_config(s, data, &net));
    struct graph *g = graph_new();
    err_t err = net_build(g, &net);
    if (!err) {
        struct flops f;
        graph_flops(g, &f);
        out->forward_flops = flops_total(&f);
        out->images = s->iters * s->batch;
        out->flops_nominal = (double)out->images * target->nominal_forwards * out->forward_flops;
        out->flops_executed = out->flops_nominal;
        out->params = (int64_t)graph_param_count(g);
        bool averaged = !strcmp(s->teacher.s, "ema"), frozen = target->solves || !strcmp(s->teacher.s, "frozen");
        int sets = 3 + count_emas(s->ema.id) + averaged + frozen;
        out->ckpt_bytes = (double)out->params * (double)sizeof(float) * sets +
                          160.0 * graph_nparams(g) * sets; /* a header entry a tensor */
    }
    graph_free(g);
    return err;
}

/* ---- setting up -------------------------------------------------------------------------------------------------------------- */

static err_t device_alloc(struct trainer *tr, void **out, size_t bytes)
{
    *out = tr->k->alloc(tr->dev, bytes);
    return *out ? ERR_OK : fail(ERR_DEVICE_MEM, "device memory: %zu bytes for training", bytes);
}

static void host_alloc(struct trainer *tr)
{
    size_t batch = (size_t)tr->batch, rows = (size_t)tr->rows;
    arena_init(&tr->host);
    for (int i = 0; i < 2; i++) {
        double *p = arena_alloc(&tr->host, 4 * batch * sizeof(double));
        tr->plan[i].u = p;
        tr->plan[i].t = p + batch;
        tr->plan[i].r = p + 2 * batch;
        tr->plan[i].w = p + 3 * batch;
    }
    tr->index = arena_alloc(&tr->host, rows * sizeof *tr->index);
    tr->flip = arena_alloc(&tr->host, rows);
    if (tr->net.label_dim) tr->onehot = arena_alloc(&tr->host, rows * (size_t)tr->net.label_dim * sizeof(float));
}

static err_t arenas_alloc(struct trainer *tr)
{
    struct train_state *st = &tr->state;
    size_t bytes = tr->floats * sizeof(float), rows = (size_t)tr->rows;
    const struct dataset *d = tr->c->data;
    TRY(params_new(&st->weights, tr->graph, tr->k, tr->dev));
    if (tr->teacher == TEACHER_EMA) TRY(params_new(&st->averaged, tr->graph, tr->k, tr->dev));
    if (tr->teacher == TEACHER_FROZEN || tr->target->solves) TRY(params_new(&st->frozen, tr->graph, tr->k, tr->dev));
    TRY(device_alloc(tr, (void **)&tr->grad, bytes));
    TRY(device_alloc(tr, (void **)&st->m, bytes));
    TRY(device_alloc(tr, (void **)&st->v, bytes));
    for (int i = 0; i < st->nemas; i++) TRY(device_alloc(tr, (void **)&st->ema[i], bytes));
    TRY(device_alloc(tr, (void **)&tr->index_dev, rows * sizeof *tr->index));
    TRY(device_alloc(tr, (void **)&tr->flip_dev, rows));
    size_t elements = (size_t)d->n * (size_t)tr->per;
    if (d->values) {
        TRY(device_alloc(tr, (void **)&tr->values, elements * sizeof *tr->values));
        tr->k->upload(tr->dev, tr->values, d->values, elements * sizeof *tr->values);
        return ERR_OK;
    }
    TRY(device_alloc(tr, (void **)&tr->pixels, elements));
    tr->k->upload(tr->dev, tr->pixels, d->pixels, elements);
    return ERR_OK;
}

static void state_open(struct trainer *tr)
{
    struct train_state *st = &tr->state;
    spec_canon(tr->spec, SPEC_TRAIN, &tr->canon);
    spec_hash(tr->spec, tr->hash);
    st->graph = tr->graph;
    st->kernels = tr->k;
    st->dev = tr->dev;
    st->nemas = tr->design->nemas;
    for (int i = 0; i < st->nemas; i++) st->ema_name[i] = tr->design->ema_name[i];
    st->scaler = tr->scaler.dynamic ? tr->scaler.v : NULL;
    st->nscaler = SCALER_STATE;
    st->rows = tr->rows;
    st->totals = tr->totals;
    st->ntotals = TOTALS;
    st->canon = text_str(&tr->canon);
    st->hash = tr->hash;
    st->seed = tr->c->seed;
    st->sigma_data = tr->net.sigma_data;
    st->batch = tr->batch;
}

static err_t call_adapt(void *ctx, int n, const double *t, const double *r, const double *d, double *a)
{
    struct trainer *tr = ctx;
    TRY(tr->design->adapt(tr->design->ctx, &tr->now->s, n, t, r, d, a));
    for (int i = 0; i < n; i++) {
        if (!isfinite(a[i]) && isfinite(d[i]))
            return fail(ERR_USAGE, "adapt gave %g for t = %g, r = %g, d = %g at step %lld: it must be finite", a[i],
                        t[i], r[i], d[i], (long long)tr->now->s.step);
    }
    return ERR_OK;
}

static err_t augment_open(struct trainer *tr)
{
    const struct spec *s = tr->spec;
    const struct dataset *d = tr->c->data;
    if (!(s->augment > 0)) return ERR_OK;
    return augmenter_new(&tr->augmenter, s->augment, s->augment_transforms.n, s->augment_transforms.v, tr->k, tr->dev,
                         tr->rows, d->h, d->w, d->c);
}

static err_t trainer_open(struct trainer *tr, const struct train_config *c, struct train_result *result)
{
    const struct spec *s = c->spec;
    *tr = (struct trainer){.c = c, .result = result, .spec = s, .design = c->design, .k = c->kernels, .dev = c->dev};
    tr->target = target_find(s->target.s);
    if (!tr->target) return fail(ERR_USAGE, "unknown target '%s'", s->target.s);
    tr->teacher = !strcmp(s->teacher.s, "ema")      ? TEACHER_EMA
                  : !strcmp(s->teacher.s, "frozen") ? TEACHER_FROZEN
                                                    : TEACHER_SELF;
    TRY(train_check_settings(s, c->design, c->data, &tr->net));
    tr->graph = graph_new();
    TRY(net_build(tr->graph, &tr->net));
    tr->batch = (int)s->batch;
    tr->rows = s->micro_batch > 0 && s->micro_batch < s->batch ? (int)s->micro_batch : tr->batch;
    tr->per = c->data->h * c->data->w * c->data->c;
    tr->floats = graph_arena_floats(tr->graph);
    tr->optim = (struct optim_config){.kind = !strcmp(s->optim.s, "adam") ? OPTIM_ADAM : OPTIM_RADAM,
                                      .beta1 = s->beta1,
                                      .beta2 = s->beta2,
                                      .eps = s->eps};
    TRY(optim_scaler_init(&tr->scaler, s->loss_scale.s));
    host_alloc(tr);
    state_open(tr);
    TRY(arenas_alloc(tr));
    struct pass_config pass = {.graph = tr->graph,
                               .kernels = tr->k,
                               .dev = tr->dev,
                               .rows = tr->rows,
                               .per = tr->per,
                               .label_dim = tr->net.label_dim,
                               .augment_dim = tr->net.augment_dim,
                               .h = c->data->h,
                               .w = c->data->w,
                               .teacher = tr->target->needs_r,
                               .solves = tr->target->solves,
                               .flow = tr->target->flow,
                               .classifies = tr->target->classifies,
                               .logvar = tr->net.logvar && tr->target->logvar,
                               .teacher_eval = !strcmp(s->teacher_mode.s, "eval"),
                               .share_noise = s->share_noise,
                               .share_dropout = s->share_dropout,
                               .sigma_data = tr->net.sigma_data,
                               .loss = {.c = s->c, .p = s->p},
                               .adapt = c->design->adapt ? call_adapt : NULL,
                               .adapt_ctx = tr};
    if (!loss_metric_find(s->metric.s, &pass.loss.metric)) return fail(ERR_USAGE, "unknown metric '%s'", s->metric.s);
    TRY(pass_new(&tr->pass, &pass));
    tr->state.metric_sha = pass_metric_sha(tr->pass);
    TRY(augment_open(tr));
    struct flops f;
    graph_flops(tr->graph, &f);
    result->sigma_data = tr->net.sigma_data;
    result->flops_nominal = (double)(s->iters * s->batch) * tr->target->nominal_forwards * flops_total(&f);
    return ERR_OK;
}

static void trainer_close(struct trainer *tr)
{
    struct train_state *st = &tr->state;
    void *const buffers[] = {tr->grad, st->m, st->v, tr->index_dev, tr->flip_dev, tr->pixels, tr->values};
    for (size_t i = 0; i < ARRAY_LEN(buffers); i++) {
        if (buffers[i]) tr->k->free(tr->dev, buffers[i]);
    }
    for (int i = 0; i < st->nemas; i++) {
        if (st->ema[i]) tr->k->free(tr->dev, st->ema[i]);
    }
    augmenter_free(tr->augmenter);
    pass_free(tr->pass);
    params_free(st->weights);
    params_free(st->averaged);
    params_free(st->frozen);
    graph_free(tr->graph);
    arena_done(&tr->host);
    text_done(&tr->canon);
}

static void note(const struct trainer *tr, const char *key, const char *text)
{
    const struct observer *o = tr->c->observer;
    if (o && o->note) o->note(o->ctx, key, text);
}

static err_t trainer_init_foreign(struct trainer *tr)
{
    struct init_report r;
    struct text line = {0};
    char num[NUM_TEXT];
    err_t err = init_load(tr->c->init_path, tr->c->init_weights, tr->state.weights, tr->graph, &r);
    if (!err) {
        init_report_text(&r, &line);
        log_at(r.missing ? LOG_WARN : LOG_INFO, "init %s: %s", tr->c->init_path, text_str(&line));
        note(tr, "init.file", tr->c->init_path);
        note(tr, "init.weights", r.prefix);
        note(tr, "init.loaded", num_text(num, r.loaded));
        note(tr, "init.dropped", text_str(&r.dropped_names));
        note(tr, "init.missing", text_str(&r.missing_names));
    }
    text_done(&line);
    init_report_done(&r);
    return err;
}

/* Weights, moments, EMAs and counters as they are before the first step of this process. */
static err_t trainer_start(struct trainer *tr)
{
    const struct train_config *c = tr->c;
    struct train_state *st = &tr->state;
    bool found = false;
    if (c->ckpt_dir) {
        ckpt_sweep(c->ckpt_dir);
        TRY(ckpt_resume(st, c->ckpt_dir, &found));
    }
    if (!found) {
        TRY(train_check_start(tr->spec, c->init_path != NULL));
        st->step = 0;
        memset(tr->totals, 0, sizeof tr->totals); /* what an unreadable checkpoint may have left */
        tr->k->fill(tr->dev, st->m, 0, tr->floats);
        tr->k->fill(tr->dev, st->v, 0, tr->floats);
        params_init(st->weights, c->seed);
        if (c->init_path && c->init_foreign) TRY(trainer_init_foreign(tr));
        else if (c->init_path) TRY(train_load_weights(c->init_path, c->init_weights, st->weights, tr->graph));
        for (int i = 0; i < st->nemas; i++) tr->k->copy(tr->dev, st->ema[i], params_arena(st->weights), tr->floats);
        if (st->averaged) params_copy(st->averaged, st->weights);
        if (st->frozen) params_copy(st->frozen, st->weights);
    }
    tr->result->first_step = tr->result->steps = st->step;
    tr->result->nimg = st->step * tr->batch;
    tr->result->final_loss = tr->totals[TOTAL_LAST_LOSS];
    return ERR_OK;
}

/* ---- the host's part of a step --------------------------------------------------------------------------------------------------- */

static struct rng stream(const struct trainer *tr, int64_t step, enum rng_purpose purpose)
{
    return (struct rng){.seed = tr->c->seed, .step = (uint32_t)step, .purpose = (uint16_t)purpose};
}

static err_t plan_make(struct trainer *tr, struct step_plan *p, int64_t step)
{
    struct step_source from = {tr->spec, tr->design, tr->target, tr->net.sigma_data};
    struct rng time = stream(tr, step, RNG_TIME);
    for (int i = 0; i < tr->batch; i++) p->u[i] = rng_uniform(&time, (uint32_t)i, 0);
    return step_plan_fill(&from, p, tr->batch, step);
}

/* ---- the device's part -------------------------------------------------------------------------------------------------------------- */

/* Clean images, labels and noise of images [first, first + n) of the step's batch. */
static void load_rows(struct trainer *tr, int64_t step, int first, int n)
{
    const struct dataset *d = tr->c->data;
    struct rng flips = stream(tr, step, RNG_FLIP);
    struct kstream noise = {
        .seed = tr->c->seed, .step = (uint32_t)step, .purpose = RNG_NOISE, .sample0 = (uint32_t)first};
    for (int i = 0; i < n; i++) {
        int64_t at = step * tr->batch + first + i;
        tr->index[i] = (int32_t)rng_permute(tr->c->seed, (uint32_t)(at / d->n), (uint32_t)d->n, (uint32_t)(at % d->n));
        tr->flip[i] = tr->spec->xflip ? rng_bits(&flips, (uint32_t)(first + i), 0) & 1 : 0;
    }
    tr->k->upload(tr->dev, tr->index_dev, tr->index, (size_t)n * sizeof *tr->index);
    tr->k->upload(tr->dev, tr->flip_dev, tr->flip, (size_t)n);
    if (tr->values) tr->k->gather_f32(tr->dev, tr->values, tr->index_dev, n, tr->per, pass_y(tr->pass));
    else
        tr->k->gather_u8(tr->dev, tr->pixels, tr->index_dev, tr->spec->xflip ? tr->flip_dev : NULL, n, d->h, d->w, d->c,
                         pass_y(tr->pass));
    if (tr->augmenter)
        augmenter_run(tr->augmenter, tr->c->seed, (uint32_t)step, (uint32_t)first, n, pass_y(tr->pass),
                      pass_augment(tr->pass));
    tr->k->normal(tr->dev, pass_eps(tr->pass), n, tr->per, &noise);
    noise.purpose = RNG_NOISE_R;
    if (pass_eps_r(tr->pass)) tr->k->normal(tr->dev, pass_eps_r(tr->pass), n, tr->per, &noise);
    if (!tr->net.label_dim) return;
    size_t width = (size_t)tr->net.label_dim, bytes = (size_t)n * width * sizeof(float);
    memset(tr->onehot, 0, bytes);
    for (int i = 0; i < n; i++) tr->onehot[(size_t)i * width + (size_t)d->labels[tr->index[i]]] = 1;
    tr->k->upload(tr->dev, pass_labels(tr->pass), tr->onehot, bytes);
}

static void account_rows(struct trainer *tr, const struct step_plan *p, int first, int n)
{
    const double *loss = pass_loss(tr->pass);
    metrics_add(tr->totals, n, p->t + first, p->w + first, pass_squares(tr->pass), loss);
    for (int i = 0; i < n; i++) {
        bool is_data = tr->target->needs_r && (float)p->r[first + i] == 0;
        if (!isfinite(loss[i]) && !is_data) tr->diverged = true;
        tr->totals[TOTAL_LAST_LOSS] += loss[i] / tr->batch;
    }
}

static err_t gradient(struct trainer *tr, const struct step_plan *p)
{
    int64_t step = p->s.step;
    tr->now = p;
    tr->k->fill(tr->dev, tr->grad, 0, tr->floats);
    tr->totals[TOTAL_LAST_LOSS] = 0;
    params_force_norm(tr->state.weights); /* EDM2's; other networks have none */
    for (int first = 0; first < tr->batch; first += tr->rows) {
        int n = tr->batch - first < tr->rows ? tr->batch - first : tr->rows;
        struct kstream drop = {
            .seed = tr->c->seed, .step = (uint32_t)step, .purpose = RNG_DROPOUT, .sample0 = (uint32_t)first};
        struct pass_rows rows = {.n = n,
                                 .global_batch = tr->batch,
                                 .t = p->t + first,
                                 .r = p->r + first,
                                 .w = p->w + first,
                                 .dropout = (float)p->dropout,
                                 .drop = drop,
                                 .drop_r = drop,
                                 .weights = tr->state.weights,
                                 .teacher = tr->teacher == TEACHER_EMA      ? tr->state.averaged
                                            : tr->teacher == TEACHER_FROZEN ? tr->state.frozen
                                                                            : NULL,
                                 .frozen = tr->state.frozen,
                                 .grad = tr->grad,
                                 .scale = tr->scaler.v[SCALER_SCALE]};
        rows.drop_r.purpose = RNG_DROPOUT_R;
        load_rows(tr, step, first, n);
        TRY(pass_run(tr->pass, tr->target, &rows));
        account_rows(tr, p, first, n);
    }
    return ERR_OK;
}

static void update(struct trainer *tr, const struct step_plan *p)
{
    struct train_state *st = &tr->state;
    struct optim_step scalars;
    uint64_t bad = 0;
    float *weights = params_arena(st->weights);
    double scale = tr->scaler.v[SCALER_SCALE];
    if (scale != 1) tr->k->scale_to(tr->dev, tr->grad, (float)(1 / scale), tr->grad, tr->floats, false);
    tr->k->grad_clean(tr->dev, tr->grad, tr->floats, 0, (float)optim_clean_inf(tr->spec->grad_clean.s), &bad);
    tr->k->sum_squares(tr->dev, tr->grad, tr->floats, &tr->squares);
    if (optim_scaler_step(&tr->scaler, bad)) {
        optim_scalars(&tr->optim, p->s.step + 1 - (int64_t)tr->scaler.v[SCALER_SKIPPED], p->lr, &scalars);
        tr->k->optim_update(tr->dev, &scalars, weights, tr->grad, st->m, st->v, tr->floats);
        params_changed(st->weights);
    }
    for (int i = 0; i < st->nemas; i++) tr->k->ema_update(tr->dev, st->ema[i], weights, p->beta[i], tr->floats);
    if (st->averaged) {
        tr->k->ema_update(tr->dev, params_arena(st->averaged), weights, p->mu, tr->floats);
        params_changed(st->averaged);
    }
    bool many = (double)bad > BAD_SHARE * (double)graph_param_count(tr->graph);
    tr->totals[TOTAL_BAD] += (double)bad;
    tr->totals[TOTAL_STREAK] = many ? tr->totals[TOTAL_STREAK] + 1 : 0;
    tr->totals[TOTAL_STEPS]++;
    tr->result->bad_grads += bad;
}

/* ---- the loop --------------------------------------------------------------------------------------------------------------------------- */

static bool is_kept(const struct train_config *c, int64_t step)
{
    for (int i = 0; i < c->nkeep; i++) {
        if (c->keep[i] == step) return true;
    }
    return false;
}

static err_t checkpoint(struct trainer *tr)
{
    const struct train_config *c = tr->c;
    char *path = NULL;
    err_t err = ERR_OK;
    if (!c->ckpt_dir) return ERR_OK;
    if (c->observer && c->observer->saving) TRY(c->observer->saving(c->observer->ctx, tr->state.step));
    TRY(ckpt_write(&tr->state, c->ckpt_dir, &path));
    ckpt_prune(c->ckpt_dir, c->keep, c->nkeep);
    if (c->observer && c->observer->checkpoint) err = c->observer->checkpoint(c->observer->ctx, tr->state.step, path);
    mem_free(path);
    return err;
}

static void log_point(struct trainer *tr, const struct step_plan *p)
{
    const struct observer *o = tr->c->observer;
    struct step_values v = {.lr = p->lr,
                            .dropout = p->dropout,
                            .stage = p->s.stage,
                            .grad_norm = sqrt(tr->squares),
                            .loss_scale = tr->scaler.dynamic ? tr->scaler.v[SCALER_SCALE] : 0};
    int64_t now = host.mono_ns(), step = tr->state.step;
    double seconds = (double)(now - tr->logged_ns) * 1e-9, images = (double)((step - tr->logged_step) * tr->batch);
    double loss = tr->totals[TOTAL_LOSS] / tr->totals[TOTAL_IMAGES];
    metrics_log(tr->totals, o, step, &v);
    if (o && o->progress) o->progress(o->ctx, step, tr->spec->iters, seconds > 0 ? images / seconds : 0, loss);
    tr->logged_ns = now;
    tr->logged_step = step;
}

static void report(struct trainer *tr, int64_t began_ns)
{
    struct train_result *r = tr->result;
    r->steps = tr->state.step;
    r->nimg = r->steps * tr->batch;
    r->flops_executed = pass_flops(tr->pass);
    r->seconds = (double)(host.mono_ns() - began_ns) * 1e-9;
    r->images_per_s = r->seconds > 0 ? (double)((r->steps - r->first_step) * tr->batch) / r->seconds : 0;
    r->final_loss = tr->totals[TOTAL_LAST_LOSS];
}

static err_t diverged(struct trainer *tr)
{
    long long step = tr->state.step;
    if (tr->diverged) return fail(ERR_DIVERGED, "step %lld: loss is %g", step, tr->totals[TOTAL_LAST_LOSS]);
    if (tr->totals[TOTAL_STREAK] < BAD_STEPS) return ERR_OK;
    return fail(ERR_DIVERGED, "step %lld: more than 1 %% of the gradient was not finite in %d consecutive steps", step,
                BAD_STEPS);
}

/* One step: the device's part of this one, then the design functions of the next. */
static err_t step_run(struct trainer *tr)
{
    int64_t step = tr->state.step;
    struct step_plan *p = &tr->plan[step % 2];
    TRY(gradient(tr, p));
    if (step + 1 < tr->spec->iters) TRY(plan_make(tr, &tr->plan[(step + 1) % 2], step + 1));
    update(tr, p);
    tr->state.step++;
    return ERR_OK;
}

static err_t trainer_loop(struct trainer *tr)
{
    const struct train_config *c = tr->c;
    const struct observer *o = c->observer;
    struct train_state *st = &tr->state;
    int64_t iters = tr->spec->iters, began = host.mono_ns(), saved = tr->result->first_step;
    tr->logged_ns = began;
    tr->logged_step = st->step;
    if (st->step == 0 && is_kept(c, 0)) TRY(checkpoint(tr));
    if (st->step < iters) TRY(plan_make(tr, &tr->plan[st->step % 2], st->step));
    while (st->step < iters) {
        if (o && o->stop && o->stop(o->ctx)) {
            if (saved != st->step || st->step == 0) TRY(checkpoint(tr));
            return fail(ERR_INTERRUPTED, "stopped after step %lld of %lld", (long long)st->step, (long long)iters);
        }
        uint64_t allocs = mem_count();
        bool first = st->step == tr->result->first_step;
        TRY(step_run(tr));
        if (!first) tr->result->allocs_in_loop += mem_count() - allocs;
        report(tr, began);
        err_t end = diverged(tr);
        if (end || st->step % tr->spec->log_every == 0 || st->step == iters)
            log_point(tr, &tr->plan[(st->step - 1) % 2]);
        if (end) return diverged(tr); /* again: the observer may have replaced the message */
        /* before this step's checkpoint, so that no resumed run lacks it */
        if (c->ckpt_dir && ema_snapshot_due(st->step, iters, tr->spec->posthoc_snapshots))
            TRY(ckpt_write_emas(st, c->ckpt_dir));
        if (st->step % tr->spec->ckpt_every != 0 && st->step != iters && !is_kept(c, st->step)) continue;
        TRY(checkpoint(tr));
        saved = st->step;
    }
    return ERR_OK;
}

err_t train_run(const struct train_config *c, struct train_result *result)
{
    struct trainer tr;
    memset(result, 0, sizeof *result);
    err_t err = trainer_open(&tr, c, result);
    if (!err) err = trainer_start(&tr);
    if (!err) err = trainer_loop(&tr);
    trainer_close(&tr);
    return err;
}

#include "core/train_plan.h"

#include <math.h>
#include <string.h>

#include "core/augment.h"
#include "core/init.h"
#include "core/optim.h"

/* ---- a step's values ------------------------------------------------------------------------------------------------------ */

static err_t check_plan(const struct step_plan *p, int n, int nemas, bool paired)
{
    long long step = p->s.step;
    for (int i = 0; i < n; i++) {
        double t = p->t[i], r = p->r[i], w = p->w[i];
        if (!isfinite(t) || (float)t <= 0)
            return fail(ERR_USAGE, "%s gave t = %g (u = %g) at step %lld: t must be positive",
                        paired ? "pair" : "noise", t, p->u[i], step);
        if (!(r >= 0 && r <= t))
            return fail(ERR_USAGE, "%s gave r = %g for t = %g at step %lld: r must be in 0..t",
                        paired ? "pair" : "mapping", r, t, step);
        if (!isfinite(w))
            return fail(ERR_USAGE, "weight gave %g for t = %g, r = %g at step %lld: it must be finite", w, t, r, step);
    }
    if (!isfinite(p->lr) || p->lr < 0)
        return fail(ERR_USAGE, "lr gave %g at step %lld: it must be finite and not below 0", p->lr, step);
    if (!(p->dropout >= 0 && p->dropout < 1))
        return fail(ERR_USAGE, "dropout gave %g at step %lld: it must be in 0..1 and less than 1", p->dropout, step);
    if (!(p->mu >= 0 && p->mu <= 1))
        return fail(ERR_USAGE, "loss.teacher_ema gave a decay of %g at step %lld: it must be in 0..1", p->mu, step);
    for (int i = 0; i < nemas; i++) {
        if (!(p->beta[i] >= 0 && p->beta[i] <= 1))
            return fail(ERR_USAGE, "ema gave a decay of %g at step %lld: it must be in 0..1", p->beta[i], step);
    }
    return ERR_OK;
}

err_t step_plan_fill(const struct step_source *from, struct step_plan *p, int n, int64_t step)
{
    const struct design *d = from->design;
    int stage = 0;
    p->s = (struct design_state){.step = step,
                                 .nimg = step * n,
                                 .batch = n,
                                 .iters = from->spec->iters,
                                 .progress = (double)step / (double)from->spec->iters,
                                 .sigma_data = from->sigma_data};
    TRY(d->stage(d->ctx, &p->s, &stage));
    p->s.stage = stage;
    if (d->curriculum) TRY(d->curriculum(d->ctx, &p->s, &p->s.N));
    if (d->pair) TRY(d->pair(d->ctx, &p->s, n, p->u, p->t, p->r));
    else TRY(d->noise(d->ctx, &p->s, n, p->u, p->t));
    if (!from->target->needs_r) memset(p->r, 0, (size_t)n * sizeof *p->r);
    else if (!d->pair) TRY(d->mapping(d->ctx, &p->s, n, p->t, p->r));
    TRY(d->weight(d->ctx, &p->s, n, p->t, p->r, p->w));
    TRY(d->lr(d->ctx, &p->s, &p->lr));
    TRY(d->dropout(d->ctx, &p->s, &p->dropout));
    for (int i = 0; i < d->nemas; i++) TRY(d->ema(d->ctx, &p->s, i, &p->beta[i]));
    if (d->teacher_ema) TRY(d->teacher_ema(d->ctx, &p->s, &p->mu));
    return check_plan(p, n, d->nemas, d->pair);
}

/* ---- checks before the first step --------------------------------------------------------------------------------------- */

static err_t check_method(const struct spec *s, const struct design *d, const struct target *target)
{
    const char *name = target->name, *teacher = s->teacher.s;
    if (target->needs_pair && !d->pair)
        return fail(ERR_USAGE, "target %s works on a grid of noise levels: set pair and curriculum", name);
    if (d->pair && target->flow)
        return fail(ERR_USAGE, "target flow takes times from noise, not from a grid: pair = none");
    if (strcmp(teacher, "self") && !target->needs_r)
        return fail(ERR_USAGE, "target %s has no r pass: loss.teacher = %s has no meaning", name, teacher);
    if (target->solves && !s->share_noise)
        return fail(ERR_USAGE,
                    "target %s: the point at r comes from the one at t, loss.share_noise = false has no "
                    "meaning",
                    name);
    return ERR_OK;
}

static err_t check_images(const struct spec *s, const struct dataset *d, const struct net_config *net)
{
    if (s->xflip && d->values) return fail(ERR_USAGE, "xflip = true: %s holds points, not images", d->name);
    if (!(s->augment > 0)) return ERR_OK;
    if (d->values) return fail(ERR_USAGE, "augment = %g: %s holds points, not images", s->augment, d->name);
    if (net->augment_dim == AUGMENT_LABELS) return ERR_OK;
    return fail(ERR_USAGE,
                "augment = %g needs net.augment = 9: a network that is not told how an image was changed learns to "
                "make changed images (xflip = true flips without labels)",
                s->augment);
}

err_t train_check_settings(const struct spec *s, const struct design *d, const struct dataset *data,
                           struct net_config *net)
{
    const struct target *target = target_find(s->target.s);
    struct optim_scaler scaler;
    enum loss_metric metric;
    if (!target) return fail(ERR_USAGE, "unknown target '%s'", s->target.s);
    if (!loss_metric_find(s->metric.s, &metric)) return fail(ERR_USAGE, "unknown metric '%s'", s->metric.s);
    TRY(check_method(s, d, target));
    TRY(optim_scaler_init(&scaler, s->loss_scale.s));
    TRY(train_net_config(s, data, net));
    return check_images(s, data, net);
}

err_t train_check_start(const struct spec *s, bool has_init)
{
    const struct target *target = target_find(s->target.s);
    bool solves = target && target->solves;
    if (has_init || (!solves && strcmp(s->teacher.s, "frozen"))) return ERR_OK;
    return fail(ERR_USAGE, "%s takes the starting weights as its teacher: init = weights of a trained network",
                solves ? "target cd" : "loss.teacher = frozen");
}

/* The functions at step 0 and even u: what is wrong there is wrong in every run. A time of flow matching beyond 1 is found by its tail. */
static err_t check_values(const struct step_source *from)
{
    enum { N = 64 };
    double u[N], t[N], r[N], w[N];
    struct step_plan p = {.u = u, .t = t, .r = r, .w = w};
    for (int i = 0; i < N; i++) u[i] = (i + 0.5) / N;
    TRY(step_plan_fill(from, &p, N, 0));
    for (int i = 0; i < N && from->target->flow; i++)
        if (!(t[i] < 1))
            return fail(ERR_USAGE,
                        "target flow: noise gave t = %g (u = %g), a time must be in (0, 1): noise = uniform_time()",
                        t[i], u[i]);
    return ERR_OK;
}

err_t train_check(const struct spec *s, const struct design *d, const struct dataset *data, const char *init_path,
                  const char *init_weights, bool has_init, struct init_report *report)
{
    struct net_config net;
    memset(report, 0, sizeof *report);
    TRY(train_check_settings(s, d, data, &net));
    TRY(train_check_start(s, has_init));
    struct step_source from = {s, d, target_find(s->target.s), net.sigma_data};
    TRY(check_values(&from));
    struct graph *g = graph_new();
    err_t err = net_build(g, &net);
    if (!err && init_path) err = init_load(init_path, init_weights, NULL, g, report);
    graph_free(g);
    return err;
}

static err_t build(const struct spec *s, const struct dataset *data, struct graph *g)
{
    struct net_config net;
    TRY(train_net_config(s, data, &net));
    return net_build(g, &net);
}

/* Parameters of equal networks stand in equal places, so the search from there ends at once. */
static err_t find_alike(const struct graph *up, const struct param_info *want, int from)
{
    int n = graph_nparams(up);
    for (int k = 0; k < n; k++) {
        const struct param_info *have = graph_param_info(up, (from + k) % n);
        if (strcmp(have->name, want->name)) continue;
        bool same = have->ndim == want->ndim;
        for (int i = 0; same && i < want->ndim; i++) same = have->dims[i] == want->dims[i];
        if (same) return ERR_OK;
        return fail(ERR_USAGE, "starting weights: %s has another shape in the network of the run they come from",
                    want->name);
    }
    return fail(ERR_USAGE, "starting weights: the network of the run they come from has no %s", want->name);
}

err_t train_check_parent(const struct spec *s, const struct dataset *data, const struct spec *parent,
                         const struct dataset *parent_data)
{
    struct graph *own = graph_new(), *up = graph_new();
    err_t err = build(s, data, own);
    if (!err) err = build(parent, parent_data, up);
    for (int i = 0; !err && i < graph_nparams(own); i++) err = find_alike(up, graph_param_info(own, i), i);
    graph_free(own);
    graph_free(up);
    return err;
}

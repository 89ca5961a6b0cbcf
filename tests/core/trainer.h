/* What the tests of training share: a small data set made from a formula, design functions in C, a tiny network's settings. */
#ifndef TESTS_CORE_TRAINER_H
#define TESTS_CORE_TRAINER_H

#include "tests/test.h"

#include "core/nets.h"
#include "core/train.h"

struct toy {                             /* the design's settings, changed by a test before it runs */
    double lr, dropout, weight, t_value; /* weight 0: 1 / (t - r); t_value 0: drawn */
    double r_ratio;                      /* < 0: the stage schedule; else r = r_ratio t */
    int stages;
    int levels;   /* > 0: both levels from a grid of levels + stage, and its size as N */
    double mu;    /* decay of an EMA teacher: mu / (stage + 1) */
    bool adapted; /* a = 1 / (1 + d) */
    int relief;   /* > 0: every so many steps the weight is 1 all the same */
};

static inline err_t toy_stage(void *ctx, const struct design_state *s, int *stage)
{
    *stage = (int)(s->step * ((struct toy *)ctx)->stages / s->iters);
    return ERR_OK;
}
static inline err_t toy_noise(void *ctx, const struct design_state *s, int n, const double *u, double *t)
{
    (void)s;
    double fixed = ((struct toy *)ctx)->t_value;
    for (int i = 0; i < n; i++) t[i] = fixed != 0 ? fixed : exp(-0.5 + log(u[i] / (1 - u[i])));
    return ERR_OK;
}
static inline err_t toy_mapping(void *ctx, const struct design_state *s, int n, const double *t, double *r)
{
    double ratio = ((struct toy *)ctx)->r_ratio;
    for (int i = 0; i < n; i++) {
        double v = t[i] * (1 - pow(2, -(s->stage + 1)) * (1 + 8 / (1 + exp(t[i]))));
        r[i] = ratio >= 0 ? ratio * t[i] : v > 0 ? v : 0;
    }
    return ERR_OK;
}
static inline err_t toy_weight(void *ctx, const struct design_state *s, int n, const double *t, const double *r,
                               double *w)
{
    const struct toy *toy = ctx;
    double fixed = toy->relief && s->step % toy->relief == 0 ? 1 : toy->weight;
    for (int i = 0; i < n; i++) w[i] = fixed > 0 ? fixed : 1 / (t[i] - r[i]);
    return ERR_OK;
}
static inline err_t toy_lr(void *ctx, const struct design_state *s, double *lr)
{
    (void)s;
    *lr = ((struct toy *)ctx)->lr;
    return ERR_OK;
}
static inline err_t toy_dropout(void *ctx, const struct design_state *s, double *p)
{
    (void)s;
    *p = ((struct toy *)ctx)->dropout;
    return ERR_OK;
}
static inline err_t toy_ema(void *ctx, const struct design_state *s, int i, double *beta)
{
    (void)ctx;
    *beta = i ? 1 - 1.0 / (double)(s->step + 1) : 0.9; /* "mean": of all steps; its first decay is 0 */
    return ERR_OK;
}

static inline err_t toy_curriculum(void *ctx, const struct design_state *s, double *N)
{
    *N = ((struct toy *)ctx)->levels ? ((struct toy *)ctx)->levels + s->stage : 0;
    return ERR_OK;
}
static inline err_t toy_pair(void *ctx, const struct design_state *s, int n, const double *u, double *t, double *r)
{
    (void)ctx;
    for (int i = 0; i < n; i++) {
        int at = (int)(u[i] * (s->N - 1));
        t[i] = 0.05 * pow(1.7, at + 1);
        r[i] = 0.05 * pow(1.7, at);
    }
    return ERR_OK;
}
static inline err_t toy_adapt(void *ctx, const struct design_state *s, int n, const double *t, const double *r,
                              const double *d, double *a)
{
    (void)ctx, (void)s, (void)t, (void)r;
    for (int i = 0; i < n; i++) a[i] = 1 / (1 + d[i]);
    return ERR_OK;
}
static inline err_t toy_teacher_ema(void *ctx, const struct design_state *s, double *mu)
{
    *mu = ((struct toy *)ctx)->mu / (s->stage + 1);
    return ERR_OK;
}

static inline struct toy toy_default(void)
{
    return (struct toy){.lr = 1e-3, .dropout = 0.1, .r_ratio = -1, .stages = 4};
}
static inline struct design toy_design(struct toy *t)
{
    return (struct design){.ctx = t,
                           .stage = toy_stage,
                           .noise = toy_noise,
                           .mapping = toy_mapping,
                           .curriculum = toy_curriculum,
                           .pair = t->levels ? toy_pair : NULL,
                           .adapt = t->adapted ? toy_adapt : NULL,
                           .teacher_ema = toy_teacher_ema,
                           .weight = toy_weight,
                           .lr = toy_lr,
                           .dropout = toy_dropout,
                           .nemas = 2,
                           .ema_name = {"beta9", "mean"},
                           .ema = toy_ema};
}

static inline struct dataset *toy_data(void)
{
    struct dataset *d = mem_alloc(sizeof *d);
    double sum = 0;
    *d = (struct dataset){.name = "toy", .n = 50, .h = 8, .w = 8, .c = 1, .nclasses = 3};
    d->pixels = mem_alloc(50 * 64);
    d->labels = mem_array(50, sizeof(int32_t));
    for (int i = 0; i < 50 * 64; i++) {
        d->pixels[i] = (uint8_t)(127.5 + (40 + 1.6 * (i / 64)) * sin(0.37 * i + (double)(i / 64)));
        double x = d->pixels[i] / 127.5 - 1;
        sum += x * x;
    }
    for (int i = 0; i < 50; i++) d->labels[i] = i % 3;
    d->std = sqrt(sum / (50 * 64));
    return d;
}
static inline void toy_data_free(struct dataset *d)
{
    mem_free(d->pixels);
    mem_free(d->labels);
    mem_free(d);
}

static inline void toy_spec(struct spec *s)
{
    static const char *const set[][2] = {{"data", "toy"},
                                         {"sigma_data", "0"},
                                         {"net.width", "8"},
                                         {"net.mult", "1,1"},
                                         {"net.blocks", "1"},
                                         {"net.attn", "4"},
                                         {"batch", "6"},
                                         {"iters", "12"},
                                         {"log.every", "4"},
                                         {"ckpt.every", "5"},
                                         {"ema", "beta9=a@1 mean=b@1"}};
    spec_defaults(s);
    for (size_t i = 0; i < ARRAY_LEN(set); i++) {
        if (spec_set(s, set[i][0], set[i][1])) abort();
    }
}

#endif

/* optim: an update is p -= step_size * m / (sqrt(v) / vscale + eps), the same for every kind and step; what differs are these scalars,
 * computed here in double. RAdam (Liu et al. 2020, torch's form) divides by (sqrt(v) + eps) / vscale, so its eps is scaled; while
 * rho_t <= 5 the variance of 1/sqrt(v) is unbounded and the step is momentum alone. */
#include "core/optim.h"

#include <math.h>
#include <string.h>

void optim_scalars(const struct optim_config *c, int64_t t, double lr, struct optim_step *out)
{
    double correct1 = 1 - pow(c->beta1, (double)t), correct2 = 1 - pow(c->beta2, (double)t);
    double step = lr / correct1, eps = c->eps, vscale = sqrt(correct2), rect = 1;
    bool adaptive = true;
    if (c->kind == OPTIM_RADAM) {
        double inf = 2 / (1 - c->beta2) - 1, rho = inf - 2 * (double)t * pow(c->beta2, (double)t) / correct2;
        adaptive = rho > 5;
        if (adaptive) rect = sqrt((rho - 4) * (rho - 2) * inf / ((inf - 4) * (inf - 2) * rho));
        step *= rect;
        eps /= vscale;
    }
    *out = (struct optim_step){.beta1 = c->beta1,
                               .beta2 = c->beta2,
                               .eps = (float)eps,
                               .step_size = (float)step,
                               .vscale = (float)vscale,
                               .adaptive = adaptive,
                               .radam_rect = adaptive ? rect : 0};
}

err_t optim_scaler_init(struct optim_scaler *s, const char *text)
{
    *s = (struct optim_scaler){.dynamic = !strcmp(text, "dynamic"), .v = {65536}};
    double *scale = &s->v[SCALER_SCALE];
    if (s->dynamic || (num_parse(text, scale) && isfinite(*scale) && *scale > 0)) return ERR_OK;
    return fail(ERR_USAGE, "loss.scale: '%s' is neither a positive number nor dynamic", text);
}

bool optim_scaler_step(struct optim_scaler *s, uint64_t bad)
{
    if (!s->dynamic) return true;
    if (bad) {
        s->v[SCALER_SCALE] *= 0.5;
        s->v[SCALER_GOOD] = 0;
        s->v[SCALER_SKIPPED]++;
    } else if (++s->v[SCALER_GOOD] == SCALER_GROWTH_STEPS) {
        s->v[SCALER_SCALE] *= 2;
        s->v[SCALER_GOOD] = 0;
    }
    return !bad;
}

double optim_clean_inf(const char *rule)
{
    return strcmp(rule, "main") ? 0 : 1e5;
}

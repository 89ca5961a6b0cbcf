/* sampler: from noise to images. State in float64, network in float32. Sample i of a seed block depends on (block,
 * i) only, not on how samples are batched: latents and re-noising are drawn from counters. NFE is counted by calls,
 * not assumed. */
#ifndef CORE_SAMPLER_H
#define CORE_SAMPLER_H

#include "core/graph.h"

struct sampler_config {
    char name[32];                    /* "ect": n-step consistency sampling; "heun", "euler": EDM's ODE solvers */
    int nfe;                          /* ect: number of steps; heun: 2 * steps - 1; euler: steps */
    double sigma_min, sigma_max, rho; /* EDM grid: 0.002, 80, 7. ect starts at sigma_max */
    double mid_t[16];                 /* ect: noise levels of steps 2..n */
    int nmid;
    double s_churn, s_min, s_max, s_noise; /* heun: stochastic churn; 0: deterministic */
    double net_min, net_max;               /* the grid's ends are clamped to these; 0: not */
    int label_dim;                         /* of the network's "labels" input; 0: draws take no labels */
};
/* Published values; mid_t: 0.821 for two steps, the caller's for more. */
void sampler_defaults(struct sampler_config *c, const char *name, int nfe);
/* The noise level of every network call of this configuration, in order. Returns their number (<= cap). */
int sampler_levels(const struct sampler_config *c, double *t, int cap);

struct sampler;
/* prog: a program of batch B with outputs "D", no gradient. */
err_t sampler_new(struct sampler **s, const struct sampler_config *c, struct program *prog, int batch, int per,
                  const struct kernels *k, struct kdev *dev) MUST_USE;
void sampler_free(struct sampler *s);
/* Draws samples with indices index[0..n), n <= batch, of seed block `seed`; labels [n, label_dim], NULL where it is
 * 0; out [n, per] float64. */
err_t sampler_draw(struct sampler *s, struct params *w, uint64_t seed, const uint32_t *index, int n,
                   const float *labels, double *out) MUST_USE;
/* The same from given latents (unit variance, [n, per]) and noise [steps, n, per] (ect: row k is added after call k;
 * churn: in step k); for checks against published runs. */
err_t sampler_draw_from(struct sampler *s, struct params *w, const float *latents, const double *noise, int n,
                        const float *labels, double *out) MUST_USE;
int64_t sampler_nfe(const struct sampler *s); /* network calls per sample made by the last draw */

#endif

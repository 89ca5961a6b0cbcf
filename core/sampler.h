/* sampler: from noise to images. State in float64, network in float32. Sample i of a seed block depends on (block,
 * i) only, not on how samples are batched: latents and re-noising are drawn from counters. NFE is counted by calls,
 * not assumed: a draw whose count is not the one that was asked for fails.
 *
 *   ect           n-step consistency sampling (Song et al. 2023, Algorithm 1, in ECT's form)
 *   heun, euler   EDM's ODE solvers with optional churn (Karras et al. 2022, Algorithm 2)
 *   dpmpp-2m      DPM-Solver++(2M) (Lu et al. 2022, Algorithm 2) on EDM's grid, lambda = -ln sigma
 *   ancestral-ve, ancestral-vp   ancestral sampling of the Score SDEs (Song et al. 2021, Appendix F)
 *   flow-euler    Euler for flow matching: the network's "D" is the velocity v(x, t), its "sigma" is t,
 *                 x_t = (1 - t) x_0 + t eps
 *
 * A sampler is one entry of the table in sampler_methods.c. */
#ifndef CORE_SAMPLER_H
#define CORE_SAMPLER_H

#include "core/graph.h"
#include "core/spec.h"

struct sampler_config {
    char name[32];
    int nfe;                          /* network calls per sample; steps of a sampler: see its entry */
    double sigma_min, sigma_max, rho; /* EDM's grid: 0.002, 80, 7; ect starts at sigma_max, ancestral-ve: geometric */
    double mid_t[16];                 /* ect: noise levels of steps 2..n */
    int nmid;
    double s_churn, s_min, s_max, s_noise; /* heun, euler: stochastic churn; 0: deterministic */
    double alpha;                          /* heun: where in a step the second slope is taken; 1: Heun, 0.5: midpoint */
    double beta_min, beta_max;             /* ancestral-vp: linear schedule, 0.1 and 20 */
    double net_min, net_max;               /* the grid's ends are clamped to these; 0: not */
    int label_dim;                         /* of the network's "labels" input; 0: draws take no labels */
};

enum sampler_uses { /* settings that a sampler reads: what it does not use is no part of an evaluation's identity */
                    USES_SIGMA_MIN = 1,
                    USES_SIGMA_MAX = 2,
                    USES_RHO = 4,
                    USES_MID_T = 8,
                    USES_CHURN = 16,
                    USES_ALPHA = 32,
                    USES_BETA = 64
};
struct sampler_info {
    const char *name, *help;
    const char *nfe; /* network calls in terms of steps, as text for a reader */
    unsigned uses;   /* enum sampler_uses */
    bool flow;       /* for networks that give a velocity, and for no other */
    bool shifted;    /* runs on ECMPrecond's evaluation form of the preconditioning */
};
/* In the table's order; NULL past its end. */
const struct sampler_info *sampler_at(int i);
/* ERR_USAGE lists the names and the nearest one. */
err_t sampler_find(const char *name, const struct sampler_info **info) MUST_USE;

/* Published values; mid_t: 0.821 for two steps, the caller's for more. */
void sampler_defaults(struct sampler_config *c, const char *name, int nfe);
/* The eval.* settings that this sampler uses, checked: ERR_USAGE for a number of evaluations it cannot make. */
err_t sampler_from_spec(struct sampler_config *c, const struct spec *e, int nfe) MUST_USE;
/* The noise level of every network call of this configuration, in order. Returns their number (<= cap). */
int sampler_levels(const struct sampler_config *c, double *t, int cap);
/* Adds "key=value\n" lines of all that makes two samplers different: name, nfe, levels, and what levels do not say. */
void sampler_identity(const struct sampler_config *c, struct text *out);

struct sampler;
/* prog: a program of batch B with outputs "D", no gradient. */
err_t sampler_new(struct sampler **s, const struct sampler_config *c, struct program *prog, int batch, int per,
                  const struct kernels *k, struct kdev *dev) MUST_USE;
/* The same on a function instead of a network, in float64 throughout: out [n, per] = D(x [n, per], t), out may be x.
 * For denoisers that are known in closed form. */
struct denoiser {
    void (*at)(void *ctx, const double *x, double t, const float *labels, int n, double *out);
    void *ctx;
};
err_t sampler_new_of(struct sampler **s, const struct sampler_config *c, const struct denoiser *d, int batch, int per,
                     const struct kernels *k, struct kdev *dev) MUST_USE;
void sampler_free(struct sampler *s);
/* Draws samples with indices index[0..n), n <= batch, of seed block `seed`; labels [n, label_dim], NULL where it is
 * 0; out [n, per] float64. */
err_t sampler_draw(struct sampler *s, struct params *w, uint64_t seed, const uint32_t *index, int n,
                   const float *labels, double *out) MUST_USE;
/* The same from given latents (unit variance, [n, per]) and noise [steps, n, per] (row k is added after call k of ect,
 * in step k of churn and of ancestral sampling); for checks against published runs. */
err_t sampler_draw_from(struct sampler *s, struct params *w, const float *latents, const double *noise, int n,
                        const float *labels, double *out) MUST_USE;
int64_t sampler_nfe(const struct sampler *s); /* network calls per sample made by the last draw */

#endif

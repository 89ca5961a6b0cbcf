/* sampler_methods: the inside of a sampler, for the methods alone. A method fills the grid of its steps and walks it
 * with sampler_denoise and sampler_noise. */
#ifndef CORE_SAMPLER_METHODS_H
#define CORE_SAMPLER_METHODS_H

#include "core/sampler.h"

struct sampler_method {
    struct sampler_info info;
    int calls;         /* network calls per step; 2: the last step makes one, so nfe = 2 steps - 1 */
    bool unit_latents; /* the first state has unit variance; else that of the first noise level */
    bool noisy;        /* adds noise between steps whatever the settings */
    err_t (*check)(const struct sampler_config *c); /* of what the common checks do not know; NULL: nothing */
    void (*grid)(const struct sampler_config *c, int steps, double *t); /* t[0..steps], t[steps] = 0 */
    void (*run)(struct sampler *s);
};
extern const struct sampler_method sampler_methods[]; /* ends with info.name == NULL */

struct sampler {
    struct sampler_config c;
    const struct sampler_method *method;
    struct program *prog; /* NULL: fn */
    struct denoiser fn;
    const struct kernels *k;
    struct kdev *dev;
    int batch, per, steps;
    double *grid;                               /* [steps + 1] */
    float *x_in, *sigma_in, *labels_in, *d_out; /* the program's, on the device */
    float *normal_dev;                          /* [batch, per] */
    uint32_t *index_dev;                        /* [batch] */
    float *host;                                /* [batch, per] staging */
    float *sigma_host;                          /* [batch] */
    double *x, *d, *d2, *noise;                 /* [batch, per]: state, slopes or denoised, noise of a step */
    int64_t nfe;
    /* of the draw in progress */
    struct params *w;
    const float *labels;
    const double *given; /* noise [steps, n, per], or NULL: from counters */
    uint64_t seed;
    int n;
};

size_t sampler_count(const struct sampler *s); /* values of the draw: n * per */
/* out = the network at (x, t); counted. out may be x. */
void sampler_denoise(struct sampler *s, const double *x, double t, double *out);
/* Standard normal values [n, per] that are added in a step; they lie in s->noise or are the caller's. */
const double *sampler_noise(struct sampler *s, int step);
/* Level after churn has raised t. */
double sampler_churned(const struct sampler_config *c, int steps, double t);
/* Where in a step from t to t_next the second slope is taken. */
double sampler_second(const struct sampler_config *c, double t, double t_next);

#endif

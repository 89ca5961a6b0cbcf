/* ema: averages of other lengths after training (Karras et al. 2024, "Analyzing and improving the training dynamics of diffusion
 * models", section 3.2 and appendix C). A power-function EMA after t images weights the past by
 *
 *     p_{t,gamma}(s) = (gamma + 1) s^gamma / t^(gamma + 1),  0 <= s <= t,   of relative width std:
 *     std^2 = (gamma + 1) / ((gamma + 2)^2 (gamma + 3))                                                  (their eq. 123)
 *
 * so stored EMAs of a few widths at a few times span a space of weightings of the past, and the one in it nearest to a wanted p_{t,gamma}
 * in L2 is the same linear combination of the stored weights: A x = b with A, b inner products of profiles.
 *
 * In a run: setting posthoc.snapshots = n writes DIR/ema-%09d.safetensors (EMAs and buffers only) at n even distances; they are never pruned.
 * Averages count whose decay is ect.ema.power{std=}: only theirs are of this family. */
#ifndef CORE_EMA_H
#define CORE_EMA_H

#include "core/graph.h"

/* gamma of a relative width, 0 < std < 1/sqrt(12). */
double ema_gamma(double std);

struct ema_profile { /* an average of relative width std after nimg images */
    double nimg, std;
};
/* Inner product of two profiles. */
double ema_dot(struct ema_profile a, struct ema_profile b);
/* Discretised to n points t = 0, 1, ..., n - 1 and normalised to sum 1: what an average after nimg points weights them by. */
void ema_response(struct ema_profile p, int n, double *out);

struct ema_quality {
    double miss;   /* ||combination - wanted|| / ||wanted|| of the profiles: 0 is exact */
    double growth; /* sum |x|: by this much the rounding of stored weights is amplified; 1 where all x >= 0 */
};
/* Coefficients x[n], sum 1, of the combination of in[n] nearest to out. Stored averages that are (to 1e-13) combinations of the others
 * get 0. quality may be NULL. ERR_USAGE: n < 1, a width outside (0, 1/sqrt(12)), a time that is not positive. */
err_t ema_solve(const struct ema_profile *in, int n, struct ema_profile out, double *x,
                struct ema_quality *quality) MUST_USE;

/* The width of a decay function by its identity text, "power(std=0.05)@1"; 0 if it is none of this family. */
double ema_width(const char *id);
/* The width in weights called "posthoc:0.07"; 0 if they are not called so. ERR_USAGE: called so, but no possible width. */
err_t ema_weights_width(const char *weights, double *std) MUST_USE;

/* Steps at which posthoc.snapshots = n are taken in a run of iters steps: round(k iters / n), k = 1..n. */
bool ema_snapshot_due(int64_t step, int64_t iters, int64_t n);

struct ema_made {
    int64_t step, nimg; /* of the wanted average */
    int stored;         /* averages used: files times widths */
    struct ema_quality quality;
};
/* Reconstructs the average of width std after `step` steps (< 0: the last snapshot's) from the snapshots of a directory, in double,
 * into p. ERR_NOT_FOUND says what is missing; ERR_USAGE where what is stored does not reach this width: miss above EMA_MISS_MAX, or
 * growth above EMA_GROWTH_MAX. made may be NULL. */
#define EMA_MISS_MAX 0.1
#define EMA_GROWTH_MAX 1e3
err_t ema_load(const char *dir, int64_t step, double std, struct params *p, const struct graph *g,
               struct ema_made *made) MUST_USE;
/* The same into a safetensors file under the network's own names, as float32 or rounded to float16. Its metadata are those of the last
 * snapshot used (settings, configuration, seed, sigma_data), with step, nimg and posthoc_std, posthoc_miss, posthoc_growth. */
err_t ema_save(const char *dir, int64_t step, double std, const char *path, bool half, struct ema_made *made) MUST_USE;

#endif

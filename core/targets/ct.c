/* Consistency training on a grid sigma_1 < ... < sigma_N of noise levels that grows with training. In both papers t = sigma_{i+1},
 * r = sigma_i, and D at r is taken at y + r eps: what a step of Euler's method from y + t eps arrives at when the score is estimated
 * by the image itself, (x_t - y) / t.
 *
 *   ct   Song et al. 2023, algorithm 3: i uniform, D_r by an EMA of the weights (loss.teacher = "ema", decay mu(k)), L1, L2 or LPIPS,
 *        weight 1, D the identity at sigma_min
 *   ict  Song and Dhariwal 2024: i by a discrete log-normal, D_r by the weights themselves, Pseudo-Huber, weight 1 / (t - r)
 *
 * So the step is ECT's; what tells the methods apart is settings: pair, curriculum, weight, metric, loss.teacher (see the recipes). */
#include "core/target.h"

static err_t step(struct pass *p)
{
    pass_student(p);
    pass_teacher(p);
    return pass_distance(p);
}

extern const struct target target_ct, target_ict;
const struct target target_ct = {.name = "ct",
                                 .help = "consistency training on a grid: D at sigma_{i+1} towards D at sigma_i",
                                 .needs_r = true,
                                 .needs_pair = true,
                                 .nominal_forwards = 4,
                                 .step = step};
const struct target target_ict = {.name = "ict",
                                  .help = "improved consistency training: ct without EMA teacher, other draws of i",
                                  .needs_r = true,
                                  .needs_pair = true,
                                  .nominal_forwards = 4,
                                  .step = step};

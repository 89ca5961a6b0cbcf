/* Easy consistency tuning (Geng et al. 2025, section 3): D at noise level t is pulled towards D at the lower level r of the same image,
 * noise and dropout mask, taken as a constant: L = w(t, r) d(D_t, sg D_r). With S = ||D_t - D_r||^2:
 *   pseudo-huber  d = sqrt(S + c^2) - c           dd/dD_t = (D_t - D_r) / sqrt(S + c^2)
 *   l2            d = S / sg (S + c^2)^p          dd/dD_t = 2 (D_t - D_r) / (S + c^2)^p
 * Where r = 0 the target is the clean image: with mapping.zero this is diffusion training under ECT's weighting. */
#include "core/target.h"

static err_t step(struct pass *p)
{
    pass_student(p);
    pass_teacher(p);
    return pass_distance(p);
}

extern const struct target target_ect;
const struct target target_ect = {.name = "ect",
                                  .help = "D(y + t eps, t) towards D(y + r eps, r)",
                                  .needs_r = true,
                                  .nominal_forwards = 4,
                                  .step = step};

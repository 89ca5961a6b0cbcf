/* Flow matching (Lipman et al. 2023; the straight path of Liu et al. 2023), with the paper's adaptive weighting on the velocity's error (its
 * toy of Figure 6): x_t = (1 - t) y + t eps, v = dx_t/dt = eps - y, and with S = ||F(x_t, t) - v||^2
 *   L = w(t) S / sg (S + c^2)^p        p = 0: plain flow matching; p = 1/2: the gradient of every sample has one
 *                                    size, whatever its error; p = 1: the larger the error, the smaller
 * noise(u) gives the time t in (0, 1): 0 is data, 1 is noise. */
#include "core/target.h"

static err_t step(struct pass *p)
{
    int n = pass_batch(p);
    const double *t = pass_t(p);
    for (int i = 0; i < n; i++) {
        if (!(t[i] < 1))
            return fail(ERR_USAGE, "target flow: noise gave t = %g, a time must be in (0, 1): noise.uniform_time{}",
                        t[i]);
    }
    pass_student_flow(p);
    pass_teacher_is_velocity(p);
    return pass_distance(p);
}

extern const struct target target_flow;
const struct target target_flow = {.name = "flow",
                                   .help = "velocity: F((1 - t) y + t eps, t) towards eps - y",
                                   .flow = true,
                                   .nominal_forwards = 3,
                                   .step = step};

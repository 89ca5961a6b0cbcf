/* Consistency distillation (Song et al. 2023, algorithm 2): as ct, but the point at sigma_i is where a trained diffusion model's ODE
 * leads: x_r = Heun step from y + t eps by the frozen teacher, L = w d(D(x_t, t), sg D(x_r, r)), the second D by loss.teacher (their EMA).
 * The teacher is the network that training starts from, in EDM's form of the preconditioning. */
#include "core/target.h"

static err_t step(struct pass *p)
{
    pass_student(p);
    pass_solve(p);
    pass_teacher_solved(p);
    return pass_distance(p);
}

extern const struct target target_cd;
const struct target target_cd = {.name = "cd",
                                 .help = "consistency distillation: as ct, with a Heun step of the frozen teacher",
                                 .needs_r = true,
                                 .needs_pair = true,
                                 .solves = true,
                                 .nominal_forwards = 6,
                                 .step = step};

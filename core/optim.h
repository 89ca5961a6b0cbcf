/* optim: RAdam and Adam over one flat arena with torch's semantics (torch.optim, 2.3): bias correction, eps outside the square
 * root after the correction, RAdam's un-adapted first steps (rho_t <= 5). No weight decay. */
#ifndef CORE_OPTIM_H
#define CORE_OPTIM_H

#include "kernels/kernels.h"

enum optim_kind { OPTIM_RADAM, OPTIM_ADAM };
struct optim_config {
    enum optim_kind kind;
    double beta1, beta2, eps;
};
/* Scalars of update number t = 1, 2, ... at learning rate lr. */
void optim_scalars(const struct optim_config *c, int64_t t, double lr, struct optim_step *out);
/* What an infinite gradient element becomes (NaN becomes 0) by the rule of setting grad.clean: "main" 1e5, "imgnet" 0. */
double optim_clean_inf(const char *rule);

#endif

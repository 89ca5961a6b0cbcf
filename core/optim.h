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

/* Loss scaling: the loss's gradient is computed scale times too large, so that low precision does not lose small elements, and divided
 * by scale before anything looks at it. A fixed scale is only that (EDM's --ls leaves the factor in: the same for Adam but for eps).
 * "dynamic" is torch's GradScaler: after a step with a non-finite gradient element the update is skipped and the scale halved; after
 * 2000 good steps in a row it is doubled. A skipped step counts as a step of the run (schedules, data, EMAs go on), not as one of the
 * optimiser's (bias correction). Everything that changes is in the struct, for the checkpoint. */
enum { SCALER_SCALE, SCALER_GOOD, SCALER_SKIPPED, SCALER_STATE, SCALER_GROWTH_STEPS = 2000 };
struct optim_scaler {
    bool dynamic;
    double v[SCALER_STATE]; /* the scale; good steps in a row; updates skipped so far */
};
/* text: setting loss.scale, a positive number or "dynamic", which begins at 65536. */
err_t optim_scaler_init(struct optim_scaler *s, const char *text) MUST_USE;
/* After a gradient with `bad` non-finite elements: whether the update is to be made. */
bool optim_scaler_step(struct optim_scaler *s, uint64_t bad);

/* What an infinite gradient element becomes (NaN becomes 0) by the rule of setting grad.clean: "main" 1e5, "imgnet" 0. */
double optim_clean_inf(const char *rule);

#endif

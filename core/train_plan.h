/* What a step needs from the host: noise levels, weights and scalars, made by the design functions while the device may still be busy with
 * the step before; and the checks of a run that need no step, which planning and the trainer share. */
#ifndef CORE_TRAIN_PLAN_H
#define CORE_TRAIN_PLAN_H

#include "core/nets.h"
#include "core/target.h"
#include "core/train.h"

struct step_plan {
    struct design_state s;
    double *u, *t, *r, *w;                     /* [batch] */
    double lr, dropout, beta[DESIGN_EMAS], mu; /* mu: decay of the EMA teacher */
};
/* Fills p of n samples from p->u. ERR_USAGE names the function whose values cannot be used. */
struct step_source {
    const struct spec *spec;
    const struct design *design;
    const struct target *target;
    double sigma_data;
};
err_t step_plan_fill(const struct step_source *from, struct step_plan *p, int n, int64_t step) MUST_USE;

/* Settings that contradict each other or the data, each with what to do; gives the network's configuration. */
err_t train_check_settings(const struct spec *s, const struct design *d, const struct dataset *data,
                           struct net_config *net) MUST_USE;
/* ERR_USAGE where the target, or the teacher, takes the starting weights and there are none. */
err_t train_check_start(const struct spec *s, bool has_init) MUST_USE;

#endif

/* target: a training objective. One file in core/targets/, about 40 lines: it says which passes run on which inputs and what the
 * gradient at the network's output is. The trainer owns data, noise, optimiser and loop.
 *
 * A step of a micro-batch of n samples: y clean images, eps noise, t and r noise levels, w weights. target->step fills loss[i] and
 * gives the factor g[i] of the student's output gradient; pass_gradient scales it so that the sum over the global batch is the gradient
 * of the mean loss, and runs the backward pass. */
#ifndef CORE_TARGET_H
#define CORE_TARGET_H

#include "core/base.h"

struct pass; /* a micro-batch: see core/train_pass.h; targets use the functions below */
struct target {
    const char *name, *help;
    bool needs_r;            /* mapping is called; without it r = 0 is shown to the weight function */
    bool flow;               /* the network is a velocity at time t in (0, 1), not a denoiser at a noise level */
    double nominal_forwards; /* F per image by the paper's convention for full accounting: 3 diffusion, 4 ECT */
    err_t (*step)(struct pass *p);
};
const struct target *target_find(const char *name); /* NULL if unknown */
extern const struct target *const targets[];        /* ends with NULL */

/* What a target is written with. Rows where r = 0 are handled by pass_teacher: their target is the clean image; if all rows
 * are such, the network is not called. */
int pass_batch(const struct pass *p);
const double *pass_t(const struct pass *p), *pass_r(const struct pass *p), *pass_w(const struct pass *p);
void pass_student(struct pass *p);             /* D_t = D(y + t eps, t), with gradient */
void pass_teacher(struct pass *p);             /* D_r = D(y + r eps, r) of the same weights, no gradient, same mask */
void pass_teacher_is_data(struct pass *p);     /* D_r = y */
void pass_student_flow(struct pass *p);        /* D_t = F((1 - t) y + t eps, t), with gradient */
void pass_teacher_is_velocity(struct pass *p); /* D_r = eps - y */
/* S_i = ||D_t - D_r||^2; then the target gives loss_i and the gradient factor g_i: dLoss_i/dD_t = g_i (D_t - D_r). */
const double *pass_sqdist(struct pass *p);
double *pass_loss_out(struct pass *p), *pass_factor_out(struct pass *p); /* [n], to be filled */
void pass_gradient(struct pass *p); /* backward from g_i / global batch (D_t - D_r) */
struct loss_opts {
    bool huber;
    double c, p;
};
const struct loss_opts *pass_loss_opts(const struct pass *p);
/* The distance of metric, c and p for S = s: its value and the factor of (D_t - D_r) in its gradient. At S = 0 with c = 0 the published
 * gradient is 0/0, cleaned to 0; here it is 0. */
void loss_distance(const struct loss_opts *o, double s, double *d, double *g);
double pass_sigma_data(const struct pass *p);

#endif

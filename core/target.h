/* target: a training objective. One file in core/targets/, about 40 lines: it says which passes run on which inputs and what the
 * gradient at the network's output is. The trainer owns data, noise, optimiser and loop.
 *
 * A step of a micro-batch of n samples: y clean images, eps noise, t and r noise levels, w weights. Three parameter sets may take part:
 * the weights in training; the teacher's (the same, their EMA, or those at the start: setting loss.teacher), which give D_r; and the
 * frozen ones of the start, which solve the ODE in distillation. target->step fills loss[i] and gives the factor g[i] of the student's
 * output gradient; pass_gradient scales it so that the sum over the global batch is the gradient of the mean loss, and runs the backward
 * pass. */
#ifndef CORE_TARGET_H
#define CORE_TARGET_H

#include "core/base.h"

struct pass; /* a micro-batch: see core/train_pass.h; targets use the functions below */
struct target {
    const char *name, *help;
    bool needs_r;            /* mapping (or pair) is called; without it r = 0 is shown to the weight function */
    bool needs_pair;         /* works on a grid of noise levels: pair and curriculum must be set */
    bool flow;               /* the network is a velocity at time t in (0, 1), not a denoiser at a noise level */
    bool solves;             /* pass_solve is called: needs the frozen weights of a trained network */
    bool classifies;         /* the network gives logits, of clean images; nothing is sampled from it */
    bool logvar;             /* trains an uncertainty head where the network has one */
    double nominal_forwards; /* F per image by the paper's convention for full accounting: 3 diffusion, 4 ECT, 6 CD */
    err_t (*step)(struct pass *p);
};
const struct target *target_find(const char *name); /* NULL if unknown */
extern const struct target *const targets[];        /* ends with NULL */

/* What a target is written with. Rows where r = 0 are handled by pass_teacher: their target is the clean image; if all rows
 * are such, the network is not called. */
int pass_batch(const struct pass *p);
int pass_elements(const struct pass *p); /* of an image */
const double *pass_t(const struct pass *p), *pass_r(const struct pass *p), *pass_w(const struct pass *p);
void pass_student(struct pass *p); /* D_t = D(y + t eps, t), with gradient */
void pass_teacher(struct pass *p); /* D_r = D(y + r eps, r) of the teacher's weights, no gradient, same mask */
/* x_r = a step of Heun's method along the ODE dx/dt = (x - D(x, t)) / t of the frozen weights, from pass_student's x_t to level r: two
 * forward passes without dropout, in EDM's form of the preconditioning. Then D_r = D(x_r, r) as in pass_teacher. */
void pass_solve(struct pass *p);
void pass_teacher_solved(struct pass *p);
void pass_teacher_is_data(struct pass *p);     /* D_r = y */
void pass_student_flow(struct pass *p);        /* D_t = F((1 - t) y + t eps, t), with gradient */
void pass_teacher_is_velocity(struct pass *p); /* D_r = eps - y */
/* L_i = w_i a_i d(D_t, sg D_r) with the metric d of the settings and a = adapt(t, r, ||D_t - D_r||, s) where a script gives one:
 * fills loss and gradient factor and runs the backward pass. Most targets end with it. */
err_t pass_distance(struct pass *p) MUST_USE;
/* The other way. S_i = ||D_t - D_r||^2; then the target gives loss_i and the gradient factor g_i: dLoss_i/dD_t = g_i (D_t - D_r). */
const double *pass_sqdist(struct pass *p);
double *pass_loss_out(struct pass *p), *pass_factor_out(struct pass *p); /* [n], to be filled */
/* Uncertainty u_i of the noise level, after pass_student; NULL: the network has no such head. dLoss_i/du_i is to be filled. */
const double *pass_logvar(struct pass *p);
double *pass_logvar_grad_out(struct pass *p);
/* Of a classifier: logits [n, classes] of clean images, their classes [n]; the gradient [n, classes] of each sample's loss is to be filled. */
void pass_student_classes(struct pass *p);
int pass_classes(const struct pass *p);
const float *pass_logits(struct pass *p);
const int *pass_class(struct pass *p);
float *pass_logits_grad_out(struct pass *p);
void pass_gradient_classes(struct pass *p);
void pass_gradient(struct pass *p); /* backward from g_i / global batch (D_t - D_r) */

/* d(a, b) of two images, D = a - b, S = ||D||^2 (core/distance.h computes them). The default of a zeroed struct is S itself. */
enum loss_metric {
    LOSS_L2,      /* S / sg (S + c^2)^p */
    LOSS_HUBER,   /* sqrt(S + c^2) - c */
    LOSS_L1,      /* sum |D| */
    LOSS_L2_MEAN, /* S / elements */
    LOSS_L1_MEAN, /* sum |D| / elements */
    LOSS_L2_32,   /* LOSS_L2_MEAN of both images resized to 32x32 */
    LOSS_LPIPS    /* core/metrics/lpips.h */
};
struct loss_opts {
    enum loss_metric metric;
    double c, p;
};
bool loss_metric_find(const char *name, enum loss_metric *m); /* by the name of the setting */
/* The distances that are functions of S = s (and of `per` elements): value and the factor of D in the gradient. At S = 0 with c = 0 the
 * published gradient is 0/0, cleaned to 0; here it is 0. */
void loss_distance(const struct loss_opts *o, double s, int per, double *d, double *g);
double pass_sigma_data(const struct pass *p);

#endif

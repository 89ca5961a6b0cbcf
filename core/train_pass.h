/* train_pass: one micro-batch on the device: the student's forward and backward and the teacher's forward, as a target asks for
 * them (core/target.h). The trainer uses it with data and counters, the checks against the published code with given arrays.
 *
 * The caller fills pass_y, pass_eps (and pass_eps_r, pass_labels, pass_augment) for n >= 1 rows, then calls pass_run. Rows beyond n are
 * computed as copies of the first ones and have no part in anything: their gradient is zero, whatever they hold. */
#ifndef CORE_TRAIN_PASS_H
#define CORE_TRAIN_PASS_H

#include "core/graph.h"
#include "core/target.h"

struct pass_config {
    struct graph *graph;
    const struct kernels *kernels;
    struct kdev *dev;
    int rows; /* of a micro-batch, at most */
    int per;  /* elements of an image */
    int h, w; /* of an image, where the metric looks at pixels; 0: it does not */
    int label_dim, augment_dim;
    bool teacher;    /* the target calls pass_teacher or pass_teacher_solved */
    bool solves;     /* the target calls pass_solve */
    bool flow;       /* the target calls pass_student_flow, pass_teacher_is_velocity */
    bool classifies; /* the graph has an output "logits", of label_dim classes, in place of "D" */
    bool logvar;     /* the graph has an output "logvar" that is to be trained */
    bool share_noise, share_dropout;
    bool teacher_eval; /* r pass without dropout, in the evaluation form of the preconditioning */
    double sigma_data;
    struct loss_opts loss;
    /* Detached factor a of the loss, of n samples with d = ||D_t - D_r||; NULL: 1. */
    err_t (*adapt)(void *ctx, int n, const double *t, const double *r, const double *d, double *a);
    void *adapt_ctx;
};
err_t pass_new(struct pass **p, const struct pass_config *c) MUST_USE;
void pass_free(struct pass *p);

/* Device buffers [rows, per], [rows, label_dim] and [rows, augment_dim] (zero: not augmented); NULL where the network takes none. eps_r is
 * read only where noise is not shared. */
float *pass_y(struct pass *p), *pass_eps(struct pass *p), *pass_eps_r(struct pass *p), *pass_labels(struct pass *p);
float *pass_augment(struct pass *p);

struct pass_rows {
    int n, global_batch;
    const double *t, *r, *w;     /* [n]; they must be valid until the next run */
    float dropout;               /* probability */
    struct kstream drop, drop_r; /* drop_r: masks of the r pass where they are not shared */
    struct params *weights;
    struct params *teacher; /* of the r pass; NULL: weights */
    struct params *frozen;  /* of pass_solve */
    float *grad;            /* gradient arena, added to */
    double scale;           /* of the gradient: loss scaling; 0 stands for 1 */
};
err_t pass_run(struct pass *p, const struct target *target, const struct pass_rows *rows) MUST_USE;

/* After a run. */
const double *pass_loss(const struct pass *p);    /* [n] */
const double *pass_squares(const struct pass *p); /* [n] S_i */
bool pass_teacher_ran(const struct pass *p);
const float *pass_d_t(const struct pass *p), *pass_d_r(const struct pass *p); /* device, [rows, per] */
const float *pass_x_r(const struct pass *p);                                  /* device: what pass_solve arrived at */
/* Executed by all runs so far: 2 per multiply-accumulate, backward twice the forward; with the metric's own network. */
double pass_flops(const struct pass *p);
const char *pass_metric_sha(const struct pass *p); /* of the metric's own network; NULL: it has none */

#endif

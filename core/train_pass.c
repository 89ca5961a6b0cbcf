/* A pass never gives the network a noise level of zero: rows with r = 0 run at a stand-in level and their result is overwritten with
 * the clean image (after pass_solve: with the point that the step arrived at) before anything reads it. */
#include "core/train_pass.h"

#include <math.h>
#include <string.h>

#include "core/distance.h"

struct pass {
    struct pass_config c;
    struct program *student, *teacher, *solver;
    struct distance *distance;
    float *y, *eps, *eps_r, *labels, *augment; /* device */
    float *velocity, *rest;       /* device: eps - y [rows, per] and 1 - t [rows], where the target is a flow */
    float *x_r, *euler;           /* device [rows, per]: the solver's points */
    float *coef_a, *coef_b;       /* device [rows] */
    float *factor_dev;            /* device [rows] */
    double *sums_dev;             /* device [rows] */
    double *sums, *loss, *factor; /* host [rows] */
    double *logvar, *logvar_grad; /* host [rows] */
    double *norm, *adapted;       /* host [rows]: ||D_t - D_r|| and what adapt makes of it */
    float *host;                  /* host [rows], staging */
    float *logits, *onehot;       /* host [rows, label_dim]: logits; labels, then the logits' gradient */
    int *class;                   /* host [rows] */
    const float *d_r;             /* device: teacher's output or y */
    const struct pass_rows *rows; /* of the run in progress */
    double forward_flops, flops;
    bool teacher_ran, by_distance; /* the gradient's direction is the metric's */
};

static err_t device_alloc(struct pass *p, void **out, size_t bytes)
{
    *out = p->c.kernels->alloc(p->c.dev, bytes);
    return *out ? ERR_OK : fail(ERR_DEVICE_MEM, "device memory for a micro-batch of %d images", p->c.rows);
}

err_t pass_new(struct pass **out, const struct pass_config *c)
{
    err_t err = ERR_OK;
    struct pass *p = mem_alloc(sizeof *p);
    size_t rows = (size_t)c->rows, image = rows * (size_t)c->per * sizeof(float);
    struct flops flops;
    p->c = *c;
    graph_flops(c->graph, &flops);
    p->forward_flops = flops_total(&flops);
    p->sums = mem_array(rows * 7, sizeof(double));
    p->loss = p->sums + rows;
    p->factor = p->sums + 2 * rows;
    p->logvar = p->sums + 3 * rows;
    p->logvar_grad = p->sums + 4 * rows;
    p->norm = p->sums + 5 * rows;
    p->adapted = p->sums + 6 * rows;
    p->host = mem_array(rows, sizeof(float));
    struct program_opts opts = {.batch = c->rows,
                                .grad = GRAD_PARAMS,
                                .only = c->classifies ? "logits"
                                        : c->logvar   ? "D,logvar"
                                                      : "D"};
    TRYD(program_new(&p->student, c->graph, c->kernels, c->dev, &opts));
    opts = (struct program_opts){.batch = c->rows, .eval_form = c->teacher_eval, .only = "D"};
    if (c->teacher) TRYD(program_new(&p->teacher, c->graph, c->kernels, c->dev, &opts));
    opts = (struct program_opts){.batch = c->rows, .plain_form = true, .only = "D"};
    if (c->solves) TRYD(program_new(&p->solver, c->graph, c->kernels, c->dev, &opts));
    if (c->classifies) {
        p->logits = mem_array(2 * rows * (size_t)c->label_dim, sizeof(float));
        p->onehot = p->logits + rows * (size_t)c->label_dim;
        p->class = mem_array(rows, sizeof *p->class);
    }
    int pixels = c->h * c->w;
    struct distance_config distance = {.loss = c->loss,
                                       .rows = c->rows,
                                       .h = pixels ? c->h : 1,
                                       .w = pixels ? c->w : 1,
                                       .c = pixels ? c->per / pixels : c->per,
                                       .kernels = c->kernels,
                                       .dev = c->dev};
    TRYD(distance_new(&p->distance, &distance));
    TRYD(device_alloc(p, (void **)&p->y, image));
    TRYD(device_alloc(p, (void **)&p->eps, image));
    if (c->teacher && !c->share_noise) TRYD(device_alloc(p, (void **)&p->eps_r, image));
    if (c->label_dim) TRYD(device_alloc(p, (void **)&p->labels, rows * (size_t)c->label_dim * sizeof(float)));
    if (c->flow) TRYD(device_alloc(p, (void **)&p->velocity, image));
    if (c->flow) TRYD(device_alloc(p, (void **)&p->rest, rows * sizeof(float)));
    if (c->augment_dim) TRYD(device_alloc(p, (void **)&p->augment, rows * (size_t)c->augment_dim * sizeof(float)));
    if (c->solves) TRYD(device_alloc(p, (void **)&p->x_r, image));
    if (c->solves) TRYD(device_alloc(p, (void **)&p->euler, image));
    if (c->solves) TRYD(device_alloc(p, (void **)&p->coef_a, rows * sizeof(float)));
    if (c->solves) TRYD(device_alloc(p, (void **)&p->coef_b, rows * sizeof(float)));
    TRYD(device_alloc(p, (void **)&p->factor_dev, rows * sizeof(float)));
    TRYD(device_alloc(p, (void **)&p->sums_dev, rows * sizeof(double)));
done:
    if (err) pass_free(p);
    *out = err ? NULL : p;
    return err;
}

void pass_free(struct pass *p)
{
    if (!p) return;
    void *const buffers[] = {p->y,   p->eps,   p->eps_r,  p->labels, p->augment,    p->velocity, p->rest,
                             p->x_r, p->euler, p->coef_a, p->coef_b, p->factor_dev, p->sums_dev};
    for (size_t i = 0; i < ARRAY_LEN(buffers); i++) {
        if (buffers[i]) p->c.kernels->free(p->c.dev, buffers[i]);
    }
    program_free(p->student);
    program_free(p->teacher);
    program_free(p->solver);
    distance_free(p->distance);
    mem_free(p->sums);
    mem_free(p->host);
    mem_free(p->logits);
    mem_free(p->class);
    mem_free(p);
}

float *pass_y(struct pass *p)
{
    return p->y;
}
float *pass_eps(struct pass *p)
{
    return p->eps;
}
float *pass_eps_r(struct pass *p)
{
    return p->eps_r;
}
float *pass_labels(struct pass *p)
{
    return p->labels;
}
float *pass_augment(struct pass *p)
{
    return p->augment;
}
const double *pass_loss(const struct pass *p)
{
    return p->loss;
}
const double *pass_squares(const struct pass *p)
{
    return p->sums;
}
bool pass_teacher_ran(const struct pass *p)
{
    return p->teacher_ran;
}
const float *pass_d_t(const struct pass *p)
{
    return program_output(p->student, "D");
}
const float *pass_d_r(const struct pass *p)
{
    return p->d_r;
}
const float *pass_x_r(const struct pass *p)
{
    return p->x_r;
}
const char *pass_metric_sha(const struct pass *p)
{
    return distance_sha(p->distance);
}
double pass_flops(const struct pass *p)
{
    return p->flops;
}

/* ---- what a target calls ---------------------------------------------------------------------------------------------- */

int pass_batch(const struct pass *p)
{
    return p->rows->n;
}
const double *pass_t(const struct pass *p)
{
    return p->rows->t;
}
const double *pass_r(const struct pass *p)
{
    return p->rows->r;
}
const double *pass_w(const struct pass *p)
{
    return p->rows->w;
}
double *pass_loss_out(struct pass *p)
{
    return p->loss;
}
double *pass_factor_out(struct pass *p)
{
    return p->factor;
}
int pass_elements(const struct pass *p)
{
    return p->c.per;
}
double *pass_logvar_grad_out(struct pass *p)
{
    return p->logvar_grad;
}
double pass_sigma_data(const struct pass *p)
{
    return p->c.sigma_data;
}

static struct params *teacher_set(const struct pass_rows *rows)
{
    return rows->teacher ? rows->teacher : rows->weights;
}

static bool is_zero(double r)
{
    return (float)r == 0; /* the network sees float: a double too small for it is zero too */
}

static void load_levels(struct pass *p, struct program *prog, const double *level)
{
    for (int i = 0; i < p->c.rows; i++) {
        double v = level[i % p->rows->n];
        p->host[i] = is_zero(v) ? 1 : (float)v;
    }
    p->c.kernels->upload(p->c.dev, program_input(prog, "sigma"), p->host, (size_t)p->c.rows * sizeof(float));
}

static void load_conditions(struct pass *p, struct program *prog)
{
    const struct kernels *k = p->c.kernels;
    size_t rows = (size_t)p->c.rows;
    if (p->c.label_dim) k->copy(p->c.dev, program_input(prog, "labels"), p->labels, rows * (size_t)p->c.label_dim);
    if (p->c.augment_dim)
        k->copy(p->c.dev, program_input(prog, "augment"), p->augment, rows * (size_t)p->c.augment_dim);
}

/* x = y + level eps and the conditions, into the program's inputs. A level of zero becomes 1. */
static void load_inputs(struct pass *p, struct program *prog, const double *level, const float *eps)
{
    load_levels(p, prog, level);
    p->c.kernels->add_noise(p->c.dev, p->y, eps, program_input(prog, "sigma"), program_input(prog, "x"), p->c.rows,
                            p->c.per);
    load_conditions(p, prog);
}

static struct run_ctx student_ctx(const struct pass *p)
{
    return (struct run_ctx){.dropout = p->rows->dropout, .drop = p->rows->drop};
}

void pass_student(struct pass *p)
{
    struct run_ctx ctx = student_ctx(p);
    load_inputs(p, p->student, p->rows->t, p->eps);
    program_forward(p->student, p->rows->weights, &ctx);
    p->flops += p->forward_flops * p->rows->n;
}

void pass_student_flow(struct pass *p)
{
    const struct kernels *k = p->c.kernels;
    struct run_ctx ctx = student_ctx(p);
    load_levels(p, p->student, p->rows->t);
    for (int i = 0; i < p->c.rows; i++) p->host[i] = (float)(1 - p->rows->t[i % p->rows->n]);
    k->upload(p->c.dev, p->rest, p->host, (size_t)p->c.rows * sizeof(float));
    k->blend_rows(p->c.dev, p->y, p->rest, p->eps, program_input(p->student, "sigma"), program_input(p->student, "x"),
                  p->c.rows, p->c.per);
    load_conditions(p, p->student);
    program_forward(p->student, p->rows->weights, &ctx);
    p->flops += p->forward_flops * p->rows->n;
}

void pass_teacher_is_velocity(struct pass *p)
{
    const struct kernels *k = p->c.kernels;
    for (int i = 0; i < p->c.rows; i++) p->host[i] = 1;
    k->upload(p->c.dev, p->factor_dev, p->host, (size_t)p->c.rows * sizeof(float));
    k->diff_rows(p->c.dev, p->eps, p->y, p->factor_dev, p->velocity, p->c.rows, p->c.per);
    p->d_r = p->velocity;
}

void pass_teacher_is_data(struct pass *p)
{
    p->d_r = p->y;
}

/* The r pass on what is in the teacher program's inputs; rows with r = 0 take the row of `known` instead. */
static void teacher_forward(struct pass *p, const float *known)
{
    const struct kernels *k = p->c.kernels;
    struct run_ctx ctx = student_ctx(p);
    int n = p->rows->n;
    if (!p->c.share_dropout) ctx.drop = p->rows->drop_r;
    if (p->c.teacher_eval) ctx.dropout = 0;
    program_forward(p->teacher, teacher_set(p->rows), &ctx);
    p->flops += p->forward_flops * n;
    p->teacher_ran = true;
    float *d = program_output(p->teacher, "D");
    size_t per = (size_t)p->c.per;
    for (int i = 0; i < n; i++) {
        if (is_zero(p->rows->r[i])) k->copy(p->c.dev, d + (size_t)i * per, known + (size_t)i * per, per);
    }
    p->d_r = d;
}

static bool all_zero(const struct pass *p)
{
    for (int i = 0; i < p->rows->n; i++) {
        if (!is_zero(p->rows->r[i])) return false;
    }
    return true;
}

void pass_teacher(struct pass *p)
{
    if (all_zero(p)) {
        pass_teacher_is_data(p);
        return;
    }
    load_inputs(p, p->teacher, p->rows->r, p->c.share_noise ? p->eps : p->eps_r);
    teacher_forward(p, p->y);
}

void pass_teacher_solved(struct pass *p)
{
    if (all_zero(p)) {
        p->d_r = p->x_r;
        return;
    }
    load_levels(p, p->teacher, p->rows->r);
    p->c.kernels->copy(p->c.dev, program_input(p->teacher, "x"), p->x_r, (size_t)p->c.rows * (size_t)p->c.per);
    load_conditions(p, p->teacher);
    teacher_forward(p, p->x_r);
}

/* ---- classes ------------------------------------------------------------------------------------------------------------ */

void pass_student_classes(struct pass *p)
{
    const struct kernels *k = p->c.kernels;
    struct run_ctx ctx = student_ctx(p);
    size_t width = (size_t)p->c.label_dim, n = (size_t)p->rows->n;
    k->copy(p->c.dev, program_input(p->student, "x"), p->y, (size_t)p->c.rows * (size_t)p->c.per);
    program_forward(p->student, p->rows->weights, &ctx);
    k->download(p->c.dev, p->onehot, p->labels, n * width * sizeof(float));
    k->download(p->c.dev, p->logits, program_output(p->student, "logits"), n * width * sizeof(float));
    for (size_t i = 0; i < n * width; i++)
        if (p->onehot[i] > 0) p->class[i / width] = (int)(i % width);
    memset(p->sums, 0, n * sizeof *p->sums); /* no distance */
    p->flops += p->forward_flops * p->rows->n;
}

int pass_classes(const struct pass *p)
{
    return p->c.label_dim;
}
const float *pass_logits(struct pass *p)
{
    return p->logits;
}
const int *pass_class(struct pass *p)
{
    return p->class;
}
/* In the place of the labels, which were turned into classes. */
float *pass_logits_grad_out(struct pass *p)
{
    return p->onehot;
}

void pass_gradient_classes(struct pass *p)
{
    struct run_ctx ctx = student_ctx(p);
    size_t width = (size_t)p->c.label_dim, n = (size_t)p->rows->n, unused = (size_t)p->c.rows - n;
    double scale = (p->rows->scale > 0 ? p->rows->scale : 1) / p->rows->global_batch;
    float *grad = program_output_grad(p->student, "logits");
    for (size_t i = 0; i < n * width; i++) p->onehot[i] = (float)((double)p->onehot[i] * scale);
    p->c.kernels->upload(p->c.dev, grad, p->onehot, n * width * sizeof(float));
    if (unused) p->c.kernels->fill(p->c.dev, grad + n * width, 0, unused * width);
    program_backward(p->student, p->rows->weights, &ctx, p->rows->grad);
    p->flops += 2 * p->forward_flops * p->rows->n;
}

/* ---- the solver --------------------------------------------------------------------------------------------------------- */

/* y = a(t, r) x + b(t, r) z, row by row. */
static void blend(struct pass *p, const float *x, double (*a)(double, double), const float *z,
                  double (*b)(double, double), float *y)
{
    const struct kernels *k = p->c.kernels;
    double (*const of[])(double, double) = {a, b};
    float *const to[] = {p->coef_a, p->coef_b};
    for (int c = 0; c < 2; c++) {
        for (int i = 0; i < p->c.rows; i++) {
            int row = i % p->rows->n;
            double r = p->rows->r[row];
            p->host[i] = (float)of[c](p->rows->t[row], is_zero(r) ? 0 : r);
        }
        k->upload(p->c.dev, to[c], p->host, (size_t)p->c.rows * sizeof(float));
    }
    k->blend_rows(p->c.dev, x, p->coef_a, z, p->coef_b, y, p->c.rows, p->c.per);
}

static void solver_forward(struct pass *p, const double *level, const float *x)
{
    struct run_ctx ctx = {.dropout = 0};
    load_levels(p, p->solver, level);
    p->c.kernels->copy(p->c.dev, program_input(p->solver, "x"), x, (size_t)p->c.rows * (size_t)p->c.per);
    load_conditions(p, p->solver);
    program_forward(p->solver, p->rows->frozen, &ctx);
    p->flops += p->forward_flops * p->rows->n;
}

/* With the slopes v(x, t) = (x - D(x, t)) / t at x_t and at Euler's point e = x_t + (r - t) v:
 *   e = (r/t) x_t + (1 - r/t) D(x_t, t),      x_r = x_t + (r - t) (v(x_t, t) + v(e, r)) / 2
 * At r = 0 the second slope has no meaning, so x_r = e, as in EDM's sampler. */
static double euler_x(double t, double r)
{
    return r / t;
}
static double euler_d(double t, double r)
{
    return 1 - r / t;
}
static double first_x(double t, double r)
{
    return r > 0 ? 1 + (r - t) / (2 * t) : 0;
}
static double first_d(double t, double r)
{
    return r > 0 ? -(r - t) / (2 * t) : 1;
}
static double second_x(double t, double r)
{
    return r > 0 ? (r - t) / (2 * r) : 0;
}
static double second_d(double t, double r)
{
    return r > 0 ? -(r - t) / (2 * r) : 0;
}

void pass_solve(struct pass *p)
{
    const struct kernels *k = p->c.kernels;
    const float *x_t = program_input(p->student, "x"), *d = program_output(p->solver, "D");
    solver_forward(p, p->rows->t, x_t);
    blend(p, x_t, euler_x, d, euler_d, p->euler);
    blend(p, x_t, first_x, d, first_d, p->x_r);
    if (all_zero(p)) return;
    solver_forward(p, p->rows->r, p->euler);
    blend(p, p->euler, second_x, d, second_d, p->euler);
    k->add_scaled(p->c.dev, p->x_r, p->euler, 1, p->x_r, (size_t)p->c.rows * (size_t)p->c.per);
}

/* ---- loss and gradient --------------------------------------------------------------------------------------------------- */

const double *pass_sqdist(struct pass *p)
{
    const struct kernels *k = p->c.kernels;
    k->sqdist_rows(p->c.dev, program_output(p->student, "D"), p->d_r, p->sums_dev, p->c.rows, p->c.per);
    k->download(p->c.dev, p->sums, p->sums_dev, (size_t)p->c.rows * sizeof(double));
    return p->sums;
}

const double *pass_logvar(struct pass *p)
{
    if (!p->c.logvar) return NULL;
    p->c.kernels->download(p->c.dev, p->host, program_output(p->student, "logvar"), (size_t)p->rows->n * sizeof(float));
    for (int i = 0; i < p->rows->n; i++) p->logvar[i] = (double)p->host[i];
    return p->logvar;
}

/* Per-sample factors of a gradient, scaled to the mean over the global batch, onto the device. */
static void upload_factors(struct pass *p, const double *factor, float *to)
{
    double scale = p->rows->scale > 0 ? p->rows->scale : 1;
    for (int i = 0; i < p->rows->n; i++) p->host[i] = (float)(factor[i] / p->rows->global_batch * scale);
    p->c.kernels->upload(p->c.dev, to, p->host, (size_t)p->rows->n * sizeof(float));
}

void pass_gradient(struct pass *p)
{
    const struct kernels *k = p->c.kernels;
    struct run_ctx ctx = student_ctx(p);
    int n = p->rows->n, unused = p->c.rows - n;
    size_t used = (size_t)n * (size_t)p->c.per;
    float *grad = program_output_grad(p->student, "D"), *d_t = program_output(p->student, "D");
    upload_factors(p, p->factor, p->factor_dev);
    if (p->by_distance) distance_gradient(p->distance, d_t, p->d_r, n, p->factor_dev, grad);
    else k->diff_rows(p->c.dev, d_t, p->d_r, p->factor_dev, grad, n, p->c.per);
    /* not 0 times whatever they are */
    if (unused) k->fill(p->c.dev, grad + used, 0, (size_t)unused * (size_t)p->c.per);
    if (p->c.logvar) {
        float *du = program_output_grad(p->student, "logvar");
        upload_factors(p, p->logvar_grad, du);
        if (unused) k->fill(p->c.dev, du + n, 0, (size_t)unused);
    }
    program_backward(p->student, p->rows->weights, &ctx, p->rows->grad);
    p->flops += 2 * p->forward_flops * n;
}

err_t pass_distance(struct pass *p)
{
    int n = p->rows->n;
    const double *s = pass_sqdist(p);
    distance_run(p->distance, program_output(p->student, "D"), p->d_r, n, s, p->loss, p->factor);
    p->flops += distance_flops(p->distance) * n;
    for (int i = 0; i < n; i++) {
        p->norm[i] = isfinite(s[i]) ? sqrt(s[i]) : 1; /* a loss that is not finite is not adapt's affair */
        p->adapted[i] = 1;
    }
    if (p->c.adapt) TRY(p->c.adapt(p->c.adapt_ctx, n, p->rows->t, p->rows->r, p->norm, p->adapted));
    for (int i = 0; i < n; i++) {
        double w = p->rows->w[i] * p->adapted[i];
        p->loss[i] *= w;
        p->factor[i] *= w;
    }
    p->by_distance = true;
    pass_gradient(p);
    return ERR_OK;
}

/* Unused rows are copies of used ones: what is finite in these is finite in all, and no zero ever meets an infinity. */
static void copy_rows(const struct pass *p, float *x, int width)
{
    size_t w = (size_t)width, n = (size_t)p->rows->n;
    if (!x) return;
    for (size_t i = n; i < (size_t)p->c.rows; i++) p->c.kernels->copy(p->c.dev, x + i * w, x + i % n * w, w);
}

err_t pass_run(struct pass *p, const struct target *target, const struct pass_rows *rows)
{
    TRY(program_bind(p->student, rows->weights));
    if (p->teacher) TRY(program_bind(p->teacher, teacher_set(rows)));
    if (p->solver) TRY(program_bind(p->solver, rows->frozen));
    p->rows = rows;
    copy_rows(p, p->y, p->c.per);
    copy_rows(p, p->eps, p->c.per);
    copy_rows(p, p->eps_r, p->c.per);
    copy_rows(p, p->labels, p->c.label_dim);
    copy_rows(p, p->augment, p->c.augment_dim);
    p->teacher_ran = p->by_distance = false;
    memset(p->logvar_grad, 0, (size_t)p->c.rows * sizeof *p->logvar_grad);
    err_t err = target->step(p);
    p->rows = NULL;
    return err;
}

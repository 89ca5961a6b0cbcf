/* A pass never gives the network a noise level of zero: rows with r = 0 run at a stand-in level and their result is overwritten with
 * the clean image before anything reads it. */
#include "core/train_pass.h"

#include <math.h>
#include <string.h>

struct pass {
    struct pass_config c;
    struct program *student, *teacher;
    float *y, *eps, *eps_r, *labels, *augment; /* device */
    float *velocity, *rest;       /* device: eps - y [rows, per] and 1 - t [rows], where the target is a flow */
    float *factor_dev;            /* device [rows] */
    double *sums_dev;             /* device [rows] */
    double *sums, *loss, *factor; /* host [rows] */
    float *host;                  /* host [rows], staging */
    const float *d_r;             /* device: teacher's output or y */
    const struct pass_rows *rows; /* of the run in progress */
    double forward_flops, flops;
    bool teacher_ran;
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
    p->sums = mem_array(rows * 3, sizeof(double));
    p->loss = p->sums + rows;
    p->factor = p->loss + rows;
    p->host = mem_array(rows, sizeof(float));
    struct program_opts opts = {.batch = c->rows, .grad = GRAD_PARAMS, .only = "D"};
    TRYD(program_new(&p->student, c->graph, c->kernels, c->dev, &opts));
    opts.grad = GRAD_NONE;
    if (c->teacher) TRYD(program_new(&p->teacher, c->graph, c->kernels, c->dev, &opts));
    TRYD(device_alloc(p, (void **)&p->y, image));
    TRYD(device_alloc(p, (void **)&p->eps, image));
    if (c->teacher && !c->share_noise) TRYD(device_alloc(p, (void **)&p->eps_r, image));
    if (c->label_dim) TRYD(device_alloc(p, (void **)&p->labels, rows * (size_t)c->label_dim * sizeof(float)));
    if (c->flow) TRYD(device_alloc(p, (void **)&p->velocity, image));
    if (c->flow) TRYD(device_alloc(p, (void **)&p->rest, rows * sizeof(float)));
    if (c->augment_dim) TRYD(device_alloc(p, (void **)&p->augment, rows * (size_t)c->augment_dim * sizeof(float)));
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
    void *const buffers[] = {p->y,        p->eps,  p->eps_r,      p->labels,  p->augment,
                             p->velocity, p->rest, p->factor_dev, p->sums_dev};
    for (size_t i = 0; i < ARRAY_LEN(buffers); i++) {
        if (buffers[i]) p->c.kernels->free(p->c.dev, buffers[i]);
    }
    program_free(p->student);
    program_free(p->teacher);
    mem_free(p->sums);
    mem_free(p->host);
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
const struct loss_opts *pass_loss_opts(const struct pass *p)
{
    return &p->c.loss;
}
double pass_sigma_data(const struct pass *p)
{
    return p->c.sigma_data;
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

void pass_teacher(struct pass *p)
{
    const struct kernels *k = p->c.kernels;
    int n = p->rows->n, zeros = 0;
    for (int i = 0; i < n; i++) zeros += is_zero(p->rows->r[i]);
    if (zeros == n) {
        pass_teacher_is_data(p);
        return;
    }
    struct run_ctx ctx = student_ctx(p);
    if (!p->c.share_dropout) ctx.drop = p->rows->drop_r;
    load_inputs(p, p->teacher, p->rows->r, p->c.share_noise ? p->eps : p->eps_r);
    program_forward(p->teacher, p->rows->weights, &ctx);
    p->flops += p->forward_flops * n;
    p->teacher_ran = true;
    float *d = program_output(p->teacher, "D");
    size_t per = (size_t)p->c.per;
    for (int i = 0; i < n; i++) {
        if (is_zero(p->rows->r[i])) k->copy(p->c.dev, d + (size_t)i * per, p->y + (size_t)i * per, per);
    }
    p->d_r = d;
}

const double *pass_sqdist(struct pass *p)
{
    const struct kernels *k = p->c.kernels;
    k->sqdist_rows(p->c.dev, program_output(p->student, "D"), p->d_r, p->sums_dev, p->c.rows, p->c.per);
    k->download(p->c.dev, p->sums, p->sums_dev, (size_t)p->c.rows * sizeof(double));
    return p->sums;
}

void pass_gradient(struct pass *p)
{
    const struct kernels *k = p->c.kernels;
    struct run_ctx ctx = student_ctx(p);
    float *grad = program_output_grad(p->student, "D");
    size_t used = (size_t)p->rows->n * (size_t)p->c.per, all = (size_t)p->c.rows * (size_t)p->c.per;
    double scale = p->rows->scale > 0 ? p->rows->scale : 1;
    for (int i = 0; i < p->rows->n; i++) p->host[i] = (float)(p->factor[i] / p->rows->global_batch * scale);
    k->upload(p->c.dev, p->factor_dev, p->host, (size_t)p->rows->n * sizeof(float));
    k->diff_rows(p->c.dev, program_output(p->student, "D"), p->d_r, p->factor_dev, grad, p->rows->n, p->c.per);
    if (all > used) k->fill(p->c.dev, grad + used, 0, all - used); /* not 0 times whatever they are */
    program_backward(p->student, p->rows->weights, &ctx, p->rows->grad);
    p->flops += 2 * p->forward_flops * p->rows->n;
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
    if (p->teacher) TRY(program_bind(p->teacher, rows->weights));
    p->rows = rows;
    copy_rows(p, p->y, p->c.per);
    copy_rows(p, p->eps, p->c.per);
    copy_rows(p, p->eps_r, p->c.per);
    copy_rows(p, p->labels, p->c.label_dim);
    copy_rows(p, p->augment, p->c.augment_dim);
    p->teacher_ran = false;
    err_t err = target->step(p);
    p->rows = NULL;
    return err;
}

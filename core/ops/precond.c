/* precond: EDM's preconditioning (Karras et al. 2022, Table 1): D(x, sigma) = c_skip x + c_out F(c_in x, c_noise). The coefficients of
 * a batch are four planes of `batch` floats, in the order of enum. A consistency function is the identity at sigma_min: there sigma is
 * shifted by it in c_skip and in the numerator of c_out; ECMPrecond does so in its evaluation form only, with 0.003. No gradient flows
 * to sigma. */
#include "core/graph_op.h"
#include "core/ops.h"

enum { SKIP, OUT, IN, NOISE, PLANES };
static const double ecm_sigma_min = 0.003;

struct attr {
    double sigma_data, sigma_min;
    bool shifts; /* in the evaluation form */
};

static float *plane(const float *coeffs, const struct inst *i, int which)
{
    return (float *)(uintptr_t)coeffs + (size_t)which * (size_t)i->batch;
}

static void coeffs_forward(struct inst *i, const struct run_ctx *c)
{
    (void)c;
    const struct attr *a = i->n->attr;
    double shift = a->sigma_min == 0 && a->shifts && i->eval_form ? ecm_sigma_min : a->sigma_min;
    if (i->plain_form) shift = 0;
    i->k->precond_coeffs(i->dev, i->in[0], i->batch, (float)a->sigma_data, (float)shift, plane(i->out, i, SKIP),
                         plane(i->out, i, OUT), plane(i->out, i, IN), plane(i->out, i, NOISE));
}
static const struct op coeffs_op = {.name = "precond", .no_grad = 1, .forward = coeffs_forward};

static void noise_forward(struct inst *i, const struct run_ctx *c)
{
    (void)c;
    i->k->copy(i->dev, i->out, plane(i->in[0], i, NOISE), (size_t)i->batch);
}
static const struct op noise_op = {.name = "c_noise", .no_grad = 1, .forward = noise_forward};

/* x_in = c_in x */
static void in_forward(struct inst *i, const struct run_ctx *c)
{
    (void)c;
    i->k->scale_rows(i->dev, i->in[0], plane(i->in[1], i, IN), i->out, i->batch, (int)node_per(i->n), false);
}
static void in_backward(struct inst *i, const struct run_ctx *c)
{
    (void)c;
    i->k->scale_rows(i->dev, i->dout, plane(i->in[1], i, IN), i->din[0], i->batch, (int)node_per(i->n), i->add[0]);
}
static const struct op in_op = {
    .name = "c_in", .needs_in = 2, .adds = 1, .no_grad = 2, .forward = in_forward, .backward = in_backward};

/* D = c_skip x + c_out F */
static void out_forward(struct inst *i, const struct run_ctx *c)
{
    (void)c;
    i->k->blend_rows(i->dev, i->in[0], plane(i->in[2], i, SKIP), i->in[1], plane(i->in[2], i, OUT), i->out, i->batch,
                     (int)node_per(i->n));
}
static void out_backward(struct inst *i, const struct run_ctx *c)
{
    (void)c;
    for (int j = 0; j < 2; j++)
        if (i->din[j])
            i->k->scale_rows(i->dev, i->dout, plane(i->in[2], i, j ? OUT : SKIP), i->din[j], i->batch,
                             (int)node_per(i->n), i->add[j]);
}
static const struct op out_op = {
    .name = "c_out", .needs_in = 4, .adds = 3, .no_grad = 4, .forward = out_forward, .backward = out_backward};

static struct precond precond_in(struct graph *g, struct node *x, struct node *sigma, struct attr attr)
{
    assert(node_per(sigma) == 1);
    struct precond pc;
    pc.coeffs = node_new(g, &coeffs_op, 1, 1, PLANES, sizeof(struct attr), 1, (struct node *[]){sigma});
    *(struct attr *)pc.coeffs->attr = attr;
    pc.c_noise = node_new(g, &noise_op, 1, 1, 1, 0, 1, (struct node *[]){pc.coeffs});
    pc.x_in = node_new(g, &in_op, x->h, x->w, x->c, 0, 2, (struct node *[]){x, pc.coeffs});
    return pc;
}

struct precond op_precond_in(struct graph *g, struct node *x, struct node *sigma, double sigma_data, double sigma_min)
{
    return precond_in(g, x, sigma, (struct attr){sigma_data, sigma_min, true});
}

struct precond op_precond_plain(struct graph *g, struct node *x, struct node *sigma, double sigma_data)
{
    return precond_in(g, x, sigma, (struct attr){sigma_data, 0, false});
}

struct node *op_precond_out(struct graph *g, struct node *x, struct node *f, struct precond pc)
{
    assert(x->h == f->h && x->w == f->w && x->c == f->c);
    return node_new(g, &out_op, x->h, x->w, x->c, 0, 3, (struct node *[]){x, f, pc.coeffs});
}

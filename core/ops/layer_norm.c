/* layer_norm: normalisation of every pixel over its channels. To the kernels that is group normalisation of one group where each pixel is a
 * sample of one pixel. */
#include "core/graph_op.h"
#include "core/ops.h"

enum { X, GAMMA, BETA };

static struct norm_desc desc_of(const struct inst *i)
{
    return (struct norm_desc){
        .n = i->batch * node_hw(i->n), .hw = 1, .c = i->n->c, .groups = 1, .eps = (float)*(const double *)i->n->attr};
}

static err_t norm_plan(struct inst *i)
{
    struct norm_desc d = desc_of(i);
    i->saved_floats = (size_t)d.n * 2;
    if (i->train) i->ws_floats = (size_t)d.n * (size_t)d.c * 2;
    return ERR_OK;
}

static void norm_forward(struct inst *i, const struct run_ctx *c)
{
    struct norm_desc d = desc_of(i);
    i->k->group_norm_fwd(i->dev, &d, i->in[X], i->in[GAMMA], i->in[BETA], 0, &c->drop, i->out, i->saved);
}

static void norm_backward(struct inst *i, const struct run_ctx *c)
{
    struct norm_desc d = desc_of(i);
    i->k->group_norm_bwd(i->dev, &d, i->in[X], i->in[GAMMA], i->in[BETA], 0, &c->drop, i->saved, i->dout, i->din[X],
                         i->add[X], i->din[GAMMA], i->din[BETA], i->ws);
}

static const struct op layer_norm_op = {.name = "layer_norm",
                                        .needs_in = 1 << X,
                                        .adds = 1 << X,
                                        .plan = norm_plan,
                                        .forward = norm_forward,
                                        .backward = norm_backward};

struct node *op_layer_norm(struct graph *g, struct node *x, struct node *gamma, struct node *beta, double eps)
{
    assert(node_param(gamma)->count == (size_t)x->c && node_param(beta)->count == (size_t)x->c);
    struct node *n =
        node_new(g, &layer_norm_op, x->h, x->w, x->c, sizeof(double), 3, (struct node *[]){x, gamma, beta});
    *(double *)n->attr = eps;
    return n;
}

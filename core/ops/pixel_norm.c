/* pixel_norm: each pixel over the RMS of its channels. */
#include "core/graph_op.h"
#include "core/ops.h"

static size_t rows_of(const struct inst *i)
{
    return (size_t)i->batch * (size_t)node_hw(i->n);
}

static void norm_forward(struct inst *i, const struct run_ctx *c)
{
    (void)c;
    i->k->rms_norm_fwd(i->dev, i->in[0], NULL, 1, i->out, rows_of(i), i->n->c);
}

static void norm_backward(struct inst *i, const struct run_ctx *c)
{
    (void)c;
    i->k->rms_norm_bwd(i->dev, i->in[0], NULL, 1, i->dout, i->din[0], i->add[0], NULL, NULL, rows_of(i), i->n->c);
}

static const struct op norm_op = {
    .name = "pixel_norm", .needs_in = 1, .adds = 1, .forward = norm_forward, .backward = norm_backward};

struct node *op_pixel_norm(struct graph *g, struct node *x)
{
    return node_new(g, &norm_op, x->h, x->w, x->c, 0, 1, (struct node *[]){x});
}

/* mp_fourier: sqrt(2) cos(f t + phase) of a scalar per sample; f and phase are buffers, 2 pi is in them. Nothing to train, and no gradient
 * flows to the scalar. */
#include "core/graph_op.h"
#include "core/ops.h"

static void fourier_forward(struct inst *i, const struct run_ctx *c)
{
    (void)c;
    i->k->embed_mp_fourier(i->dev, i->in[0], i->in[1], i->in[2], i->out, i->batch, i->n->c);
}

static const struct op fourier_op = {.name = "mp_fourier", .no_grad = 7, .forward = fourier_forward};

struct node *op_mp_fourier(struct graph *g, struct node *t, struct node *f, struct node *phase)
{
    int channels = (int)node_param(f)->count;
    assert(node_per(t) == 1 && node_param(phase)->count == (size_t)channels);
    return node_new(g, &fourier_op, 1, 1, channels, 0, 3, (struct node *[]){t, f, phase});
}

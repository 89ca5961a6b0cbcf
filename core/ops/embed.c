/* embed: sinusoidal embeddings of a scalar per sample. Nothing to train, and no gradient flows to the scalar. Fourier frequencies are a
 * buffer: their values are those of the parameter set that a program runs on. */
#include "core/graph_op.h"
#include "core/ops.h"

struct attr {
    bool endpoint, cos_first;
};

static void embed_forward(struct inst *i, const struct run_ctx *c)
{
    (void)c;
    const struct attr *a = i->n->attr;
    i->k->embed_positional(i->dev, i->in[0], i->out, i->batch, i->n->c, a->endpoint, a->cos_first);
}

static const struct op embed_op = {.name = "embed", .no_grad = 1, .forward = embed_forward};

struct node *op_embed_positional(struct graph *g, struct node *t, int channels, bool endpoint, bool cos_first)
{
    assert(node_per(t) == 1 && channels % 2 == 0);
    struct node *n = node_new(g, &embed_op, 1, 1, channels, sizeof(struct attr), 1, (struct node *[]){t});
    *(struct attr *)n->attr = (struct attr){endpoint, cos_first};
    return n;
}

static void fourier_forward(struct inst *i, const struct run_ctx *c)
{
    (void)c;
    const struct attr *a = i->n->attr;
    i->k->embed_fourier(i->dev, i->in[0], i->in[1], i->out, i->batch, i->n->c, a->cos_first);
}

static const struct op fourier_op = {.name = "embed_fourier", .no_grad = 3, .forward = fourier_forward};

struct node *op_embed_fourier(struct graph *g, struct node *t, struct node *freqs, bool cos_first)
{
    assert(node_per(t) == 1 && node_param(freqs)->buffer);
    int channels = 2 * (int)node_param(freqs)->count;
    struct node *n = node_new(g, &fourier_op, 1, 1, channels, sizeof(struct attr), 2, (struct node *[]){t, freqs});
    *(struct attr *)n->attr = (struct attr){.cos_first = cos_first};
    return n;
}

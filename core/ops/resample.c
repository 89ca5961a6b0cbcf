/* resample: EDM's up- and downsampling by 2 with a separable filter, normalised to sum 1 and times 4 on the way up. Each direction is
 * the other's transpose with the filter scaled. */
#include "core/graph_op.h"
#include "core/ops.h"

enum { TAPS = 8 };
struct attr {
    float f[TAPS];
    int taps, pad;
    bool up;
};

/* Counted as the published depthwise convolution: taps^2 multiply-adds per output pixel down, per input pixel up. */
static void resample_flops(const struct node *n, struct flops *f)
{
    const struct attr *a = n->attr;
    const struct node *small = a->up ? n->in[0] : n;
    f->resample += 2.0 * a->taps * a->taps * (double)node_per(small);
}

static void resample_forward(struct inst *i, const struct run_ctx *c)
{
    (void)c;
    const struct attr *a = i->n->attr;
    const struct node *x = i->n->in[0], *y = i->n;
    if (a->up) i->k->resample_up(i->dev, i->in[0], i->out, i->batch, y->h, y->w, y->c, a->f, a->taps, a->pad, 4, false);
    else i->k->resample_down(i->dev, i->in[0], i->out, i->batch, x->h, x->w, x->c, a->f, a->taps, a->pad, 1, false);
}

static void resample_backward(struct inst *i, const struct run_ctx *c)
{
    (void)c;
    const struct attr *a = i->n->attr;
    const struct node *x = i->n->in[0], *y = i->n;
    bool add = i->add[0];
    if (a->up)
        i->k->resample_down(i->dev, i->dout, i->din[0], i->batch, y->h, y->w, y->c, a->f, a->taps, a->pad, 4, add);
    else i->k->resample_up(i->dev, i->dout, i->din[0], i->batch, x->h, x->w, x->c, a->f, a->taps, a->pad, 1, add);
}

static const struct op resample_op = {
    .name = "resample", .adds = 1, .flops = resample_flops, .forward = resample_forward, .backward = resample_backward};

static struct node *make(struct graph *g, struct node *x, const double *taps, int ntaps, bool up, int pad)
{
    assert(ntaps > 0 && ntaps <= TAPS && ntaps % 2 == 0 && (up || (x->h % 2 == 0 && x->w % 2 == 0)));
    int h = up ? 2 * (x->h - 1) + ntaps - 2 * pad : (x->h + 2 * pad - ntaps) / 2 + 1;
    int w = up ? 2 * (x->w - 1) + ntaps - 2 * pad : (x->w + 2 * pad - ntaps) / 2 + 1;
    struct node *n = node_new(g, &resample_op, h, w, x->c, sizeof(struct attr), 1, (struct node *[]){x});
    struct attr *a = n->attr;
    double sum = 0;
    for (int i = 0; i < ntaps; i++) sum += taps[i];
    for (int i = 0; i < ntaps; i++) a->f[i] = (float)(taps[i] / sum);
    a->taps = ntaps;
    a->pad = pad;
    a->up = up;
    return n;
}

struct node *op_resample(struct graph *g, struct node *x, const double *taps, int ntaps, bool up)
{
    return make(g, x, taps, ntaps, up, (ntaps - 1) / 2);
}

struct node *op_resample_inside(struct graph *g, struct node *x, const double *taps, int ntaps)
{
    return make(g, x, taps, ntaps, false, 0);
}

/* mp_weight: the weight that EDM2's layers really use (Karras et al. 2024, eqs. 47 and 66): w / RMS(w) / sqrt(fan_in) for each output
 * channel, times a gain that is trained where there is one. Computed by the parameter set, once per change of its values. */
#include <math.h>

#include "core/graph_op.h"
#include "core/ops.h"

static size_t rows_of(const struct node *n)
{
    return weight_rows(node_param(n));
}
static int fan_in(const struct node *n)
{
    return (int)(node_param(n)->count / rows_of(n));
}

void weight_forward(const struct weight_call *c, float *out)
{
    const struct weight *a = c->n->attr;
    c->k->rms_norm_fwd(c->dev, c->w, c->gain, a->scale, out, rows_of(c->n), fan_in(c->n));
}

void weight_backward(const struct weight_call *c, const float *dout, float *dw, float *dgain)
{
    const struct weight *a = c->n->attr;
    c->k->rms_norm_bwd(c->dev, c->w, c->gain, a->scale, dout, dw, true, dgain, c->ws, rows_of(c->n), fan_in(c->n));
}

void weight_normalize(const struct weight_call *c, float *w)
{
    c->k->rms_norm_fwd(c->dev, w, NULL, 1, w, rows_of(c->n), fan_in(c->n));
}

struct node *op_mp_weight(struct graph *g, struct node *param, struct node *gain)
{
    return weight_new(g, param, gain, (float)(1 / sqrt(fan_in(param))));
}

/* mlp: a plain network for points (resolution 1). As a PyTorch module, W = net.width, L = net.blocks, E = 32 features:
 *
 *   net = Sequential(Linear(C + E + labels, W), SiLU(), Dropout(), [Linear(W, W), SiLU(), Dropout()] x (L - 1), Linear(W, C))
 *   forward(x, c_noise, labels): net(cat([x, embed(16 c_noise), labels], 1))
 *
 * with parameters model.net.0, model.net.3, ... embed is the U-Net's positional embedding; with its argument times 16, the fastest of its
 * features turns 2.5 times while time goes from 0 to 1, or 4 times while sigma goes from 0.002 to 80. */
#include <math.h>

#include "core/nets.h"
#include "core/nets/families.h"
#include "core/ops.h"

enum { FEATURES = 32 };
static const double feature_scale = 16;

static struct node *layer(struct graph *g, int index, struct node *x, int out, struct init init)
{
    char weight[32], bias[32];
    snprintf(weight, sizeof weight, "model.net.%d.weight", index);
    snprintf(bias, sizeof bias, "model.net.%d.bias", index);
    struct node *w = graph_param(g, weight, 2, (int[]){out, node_channels(x)}, init);
    return op_linear(g, x, w, graph_param(g, bias, 1, &out, (struct init){0}));
}

static err_t check(const struct net_config *c)
{
    if (c->resolution != 1)
        return fail(ERR_USAGE, "net = mlp is for points, not for images of %d pixels: net = songunet", c->resolution);
    if (c->augment_dim) return fail(ERR_USAGE, "net.augment: points have no augmentation");
    if (c->fourier) return fail(ERR_USAGE, "net.embedding: mlp has positional features");
    if (c->width < 1 || c->blocks < 1 || c->in_channels < 1 || c->sigma_data <= 0)
        return fail(ERR_USAGE, "mlp: net.width, net.blocks and sigma_data must be above 0");
    return ERR_OK;
}

err_t mlp_build(struct graph *g, const struct net_config *c)
{
    TRY(check(c));
    struct init hidden = {.kind = INIT_KAIMING_UNIFORM, .scale = sqrt(2)};
    struct init last = {.kind = INIT_XAVIER_UNIFORM, .scale = 1e-5};
    struct node *x = graph_input(g, "x", 1, 1, c->in_channels);
    struct node *sigma = graph_input(g, "sigma", 1, 1, 1);
    struct node *labels = c->label_dim ? graph_input(g, "labels", 1, 1, c->label_dim) : NULL;
    struct precond pc = net_precond_in(g, c, x, sigma);
    struct node *e = op_embed_positional(g, op_scale(g, pc.c_noise, feature_scale), FEATURES, true, false);
    struct node *h = op_concat(g, pc.x_in, e);
    if (labels) h = op_concat(g, h, labels);
    for (int i = 0; i < c->blocks; i++) h = op_dropout(g, op_silu(g, layer(g, 3 * i, h, c->width, hidden)));
    struct node *f = layer(g, 3 * c->blocks, h, c->in_channels, last);
    graph_output(g, "F", f);
    graph_output(g, "D", net_precond_out(g, c, x, f, pc));
    return ERR_OK;
}

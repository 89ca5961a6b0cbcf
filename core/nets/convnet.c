/* convnet: a small classifier. For each m of net.mult: relu(conv3x3(x)) to m * net.width channels, and from the second on 2x2 means while a
 * side is even and above 2. features: the mean of the last map over its pixels; logits: a linear layer on them. */
#include "core/nets/families.h"

static err_t check(const struct net_config *c)
{
    if (c->label_dim < 2)
        return fail(ERR_USAGE, "net = convnet tells classes apart: it needs net.cond = true and data with labels");
    if (c->width < 1 || c->nmult < 1 || c->resolution < 2)
        return fail(ERR_USAGE, "convnet: net.width and net.mult must be above 0, images larger than a pixel");
    if (c->resolution & (c->resolution - 1))
        return fail(ERR_USAGE, "convnet halves its images down to a pixel: %d is no power of 2", c->resolution);
    if (c->augment_dim) return fail(ERR_USAGE, "net.augment: convnet takes no augmentation labels");
    return ERR_OK;
}

static struct node *layer(struct graph *g, int i, struct node *x, int out)
{
    char weight[32], bias[32];
    snprintf(weight, sizeof weight, "model.conv%d.weight", i);
    snprintf(bias, sizeof bias, "model.conv%d.bias", i);
    struct init init = {.kind = INIT_KAIMING_UNIFORM, .scale = 1.4142135623730951}; /* ReLU halves the power */
    struct node *w = graph_param(g, weight, 4, (int[]){out, node_channels(x), 3, 3}, init);
    return op_relu(g, op_conv(g, x, w, graph_param(g, bias, 1, &out, (struct init){0})));
}

err_t convnet_build(struct graph *g, const struct net_config *c)
{
    static const double box[2] = {1, 1};
    int side = c->resolution;
    TRY(check(c));
    struct node *x = graph_input(g, "x", side, side, c->in_channels);
    for (int i = 0; i < c->nmult; i++) {
        x = layer(g, i, x, c->width * c->mult[i]);
        if (i == 0 || side % 2 || side <= 2) continue;
        x = op_resample(g, x, box, 2, false);
        side /= 2;
    }
    for (; side > 1; side /= 2) x = op_resample(g, x, box, 2, false); /* the mean of all pixels, with a gradient */
    struct node *features = x;
    struct node *w = graph_param(g, "model.out.weight", 2, (int[]){c->label_dim, node_channels(features)},
                                 (struct init){.kind = INIT_KAIMING_UNIFORM, .scale = 0.5});
    struct node *bias = graph_param(g, "model.out.bias", 1, &c->label_dim, (struct init){0});
    graph_output(g, "features", features);
    graph_output(g, "logits", op_linear(g, op_dropout(g, features), w, bias));
    return ERR_OK;
}

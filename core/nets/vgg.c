/* vgg: five stages of 3x3 convolutions with ReLU, halved between stages. */
#include <string.h>

#include "core/nets/features.h"
#include "core/ops.h"

const int vgg_depth[VGG_STAGES] = {2, 2, 3, 3, 3};

/* torchvision numbers convolutions, activations and poolings through: two a convolution, one a pooling. */
int vgg_index(int stage, int conv)
{
    int n = 0;
    for (int i = 0; i < stage; i++) n += 2 * vgg_depth[i] + 1;
    return n + 2 * conv;
}

static struct node *conv(struct graph *g, struct node *x, int index, int out)
{
    char name[64];
    struct init none = {.kind = INIT_ZERO};
    snprintf(name, sizeof name, "features.%d.weight", index);
    struct node *w = graph_param(g, name, 4, (int[]){out, node_channels(x), 3, 3}, none);
    snprintf(name, sizeof name, "features.%d.bias", index);
    return op_relu(g, op_conv(g, x, w, graph_param(g, name, 1, &out, none)));
}

/* ImageNet's normalisation of [0, 1], written for [-1, 1]: (x - shift) / scale. A grey image is repeated. */
static struct node *normalise(struct graph *g, struct node *x)
{
    static const float shift[3] = {-.030f, -.088f, -.188f}, scale[3] = {.458f, .448f, .450f};
    int c = node_channels(x);
    float w[9] = {0}, b[3];
    for (int k = 0; k < 3; k++) {
        w[c == 1 ? k : 3 * k + k] = 1 / scale[k];
        b[k] = -shift[k] / scale[k];
    }
    struct node *weight = graph_buffer(g, "scaling.weight", 4, (int[]){3, c, 1, 1}, w);
    return op_conv(g, x, weight, graph_buffer(g, "scaling.bias", 1, (int[]){3}, b));
}

err_t vgg_build(struct graph *g, const struct vgg_config *c)
{
    int h = c->side ? c->side : c->h, w = c->side ? c->side : c->w, least = 1 << (VGG_STAGES - 1);
    if (c->c != 1 && c->c != 3) return fail(ERR_USAGE, "VGG looks at images of 1 or 3 channels, not %d", c->c);
    if (h < least || w < least) return fail(ERR_USAGE, "VGG needs images of %d pixels, not %dx%d", least, h, w);
    struct node *x = graph_input(g, "x", c->h, c->w, c->c);
    if (c->side) x = op_resize(g, x, c->side, c->side, false);
    x = normalise(g, x);
    for (int stage = 0; stage < VGG_STAGES; stage++) {
        static const char *const out[VGG_STAGES] = {"f0", "f1", "f2", "f3", "f4"};
        if (stage) x = op_pool(g, x, c->pool, 2, 2, 0);
        for (int i = 0; i < vgg_depth[stage]; i++) x = conv(g, x, vgg_index(stage, i), c->width[stage]);
        graph_output(g, out[stage], x);
    }
    return ERR_OK;
}

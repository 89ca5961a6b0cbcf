/* inception: Szegedy et al. 2016's network as TensorFlow's 2015 graph has it. Against torchvision's, mean poolings divide by the pixels inside
 * the image, and the last block takes maxima. Batch normalisation is folded into the convolution before it, in double. */
#include <math.h>
#include <stdarg.h>
#include <string.h>

#include "core/nets/features.h"
#include "core/ops.h"

static const double bn_eps = 0.001;

/* Convolution, normalisation, ReLU. Parameters: NAME.conv.weight, scaled, and NAME.bias, which the normalisation leaves. r, s: window;
 * padding as given. */
static struct node *conv(struct graph *g, struct node *x, const char *name, int out, int r, int s, struct conv_opts o)
{
    char at[96];
    struct init none = {.kind = INIT_ZERO};
    snprintf(at, sizeof at, "%s.conv.weight", name);
    struct node *w = graph_param(g, at, 4, (int[]){out, node_channels(x), r, s}, none);
    snprintf(at, sizeof at, "%s.bias", name);
    return op_relu(g, op_conv_opts(g, x, w, graph_param(g, at, 1, &out, none), o));
}

struct block {
    struct graph *g;
    const char *name; /* Mixed_5b ... */
};

/* a branch's convolution: size r x s, "same" padding */
static struct node *same(const struct block *b, struct node *x, const char *part, int out, int r, int s)
{
    char at[80];
    snprintf(at, sizeof at, "%s.%s", b->name, part);
    return conv(b->g, x, at, out, r, s, (struct conv_opts){1, r / 2, s / 2});
}
/* 3 x 3, stride 2, no padding */
static struct node *halve(const struct block *b, struct node *x, const char *part, int out)
{
    char at[80];
    snprintf(at, sizeof at, "%s.%s", b->name, part);
    return conv(b->g, x, at, out, 3, 3, (struct conv_opts){2, 0, 0});
}
static struct node *join(struct graph *g, struct node *a, struct node *b, struct node *c, struct node *d)
{
    struct node *x = op_concat(g, op_concat(g, a, b), c);
    return d ? op_concat(g, x, d) : x;
}
static struct node *mean3(struct graph *g, struct node *x)
{
    return op_pool(g, x, POOL_MEAN_INSIDE, 3, 1, 1);
}

static struct node *block_a(struct graph *g, struct node *x, const char *name, int pool)
{
    struct block b = {g, name};
    struct node *one = same(&b, x, "branch1x1", 64, 1, 1);
    struct node *five = same(&b, same(&b, x, "branch5x5_1", 48, 1, 1), "branch5x5_2", 64, 5, 5);
    struct node *dbl = same(&b, same(&b, x, "branch3x3dbl_1", 64, 1, 1), "branch3x3dbl_2", 96, 3, 3);
    dbl = same(&b, dbl, "branch3x3dbl_3", 96, 3, 3);
    return join(g, one, five, dbl, same(&b, mean3(g, x), "branch_pool", pool, 1, 1));
}

static struct node *block_b(struct graph *g, struct node *x, const char *name)
{
    struct block b = {g, name};
    struct node *three = halve(&b, x, "branch3x3", 384);
    struct node *dbl = same(&b, same(&b, x, "branch3x3dbl_1", 64, 1, 1), "branch3x3dbl_2", 96, 3, 3);
    dbl = halve(&b, dbl, "branch3x3dbl_3", 96);
    return join(g, three, dbl, op_pool(g, x, POOL_MAX, 3, 2, 0), NULL);
}

static struct node *block_c(struct graph *g, struct node *x, const char *name, int c7)
{
    struct block b = {g, name};
    struct node *one = same(&b, x, "branch1x1", 192, 1, 1);
    struct node *seven = same(&b, same(&b, x, "branch7x7_1", c7, 1, 1), "branch7x7_2", c7, 1, 7);
    seven = same(&b, seven, "branch7x7_3", 192, 7, 1);
    struct node *dbl = same(&b, same(&b, x, "branch7x7dbl_1", c7, 1, 1), "branch7x7dbl_2", c7, 7, 1);
    dbl = same(&b, same(&b, dbl, "branch7x7dbl_3", c7, 1, 7), "branch7x7dbl_4", c7, 7, 1);
    dbl = same(&b, dbl, "branch7x7dbl_5", 192, 1, 7);
    return join(g, one, seven, dbl, same(&b, mean3(g, x), "branch_pool", 192, 1, 1));
}

static struct node *block_d(struct graph *g, struct node *x, const char *name)
{
    struct block b = {g, name};
    struct node *three = halve(&b, same(&b, x, "branch3x3_1", 192, 1, 1), "branch3x3_2", 320);
    struct node *seven = same(&b, same(&b, x, "branch7x7x3_1", 192, 1, 1), "branch7x7x3_2", 192, 1, 7);
    seven = halve(&b, same(&b, seven, "branch7x7x3_3", 192, 7, 1), "branch7x7x3_4", 192);
    return join(g, three, seven, op_pool(g, x, POOL_MAX, 3, 2, 0), NULL);
}

static struct node *block_e(struct graph *g, struct node *x, const char *name, bool max)
{
    struct block b = {g, name};
    struct node *one = same(&b, x, "branch1x1", 320, 1, 1), *three = same(&b, x, "branch3x3_1", 384, 1, 1);
    three = op_concat(g, same(&b, three, "branch3x3_2a", 384, 1, 3), same(&b, three, "branch3x3_2b", 384, 3, 1));
    struct node *dbl = same(&b, same(&b, x, "branch3x3dbl_1", 448, 1, 1), "branch3x3dbl_2", 384, 3, 3);
    dbl = op_concat(g, same(&b, dbl, "branch3x3dbl_3a", 384, 1, 3), same(&b, dbl, "branch3x3dbl_3b", 384, 3, 1));
    struct node *pool = max ? op_pool(g, x, POOL_MAX, 3, 1, 1) : mean3(g, x);
    return join(g, one, three, dbl, same(&b, pool, "branch_pool", 192, 1, 1));
}

/* 2 x - 1 of the resized image, or (255 x - 128) / 128, which is what TensorFlow's graph does with 255 x */
static struct node *spread(struct graph *g, struct node *x, bool corner)
{
    float w[9] = {0}, scale = corner ? 255.0f / 128 : 2, bias[3] = {-1, -1, -1};
    for (int k = 0; k < 3; k++) w[4 * k] = scale;
    struct node *weight = graph_buffer(g, "spread.weight", 4, (int[]){3, 3, 1, 1}, w);
    return op_conv(g, x, weight, graph_buffer(g, "spread.bias", 1, (int[]){3}, bias));
}

void inception_build(struct graph *g, int h, int w, bool corner)
{
    const struct conv_opts two = {2, 0, 0}, plain = {1, 0, 0}, padded = {1, 1, 1};
    struct node *x = op_resize(g, graph_input(g, "x", h, w, 3), INCEPTION_SIDE, INCEPTION_SIDE, corner);
    graph_output(g, "resized", x);
    x = conv(g, spread(g, x, corner), "Conv2d_1a_3x3", 32, 3, 3, two);
    x = conv(g, x, "Conv2d_2a_3x3", 32, 3, 3, plain);
    x = conv(g, x, "Conv2d_2b_3x3", 64, 3, 3, padded);
    x = op_pool(g, x, POOL_MAX, 3, 2, 0);
    graph_output(g, "block0", op_mean_pool(g, x));
    x = conv(g, x, "Conv2d_3b_1x1", 80, 1, 1, plain);
    x = conv(g, x, "Conv2d_4a_3x3", 192, 3, 3, plain);
    x = op_pool(g, x, POOL_MAX, 3, 2, 0);
    graph_output(g, "block1", op_mean_pool(g, x));
    x = block_a(g, block_a(g, block_a(g, x, "Mixed_5b", 32), "Mixed_5c", 64), "Mixed_5d", 64);
    x = block_b(g, x, "Mixed_6a");
    x = block_c(g, block_c(g, x, "Mixed_6b", 128), "Mixed_6c", 160);
    x = block_c(g, block_c(g, x, "Mixed_6d", 160), "Mixed_6e", 192);
    graph_output(g, "block2", op_mean_pool(g, x));
    x = block_d(g, x, "Mixed_7a");
    x = block_e(g, block_e(g, x, "Mixed_7b", false), "Mixed_7c", true);
    graph_output(g, "features", op_mean_pool(g, x));
}

/* ---- weights ------------------------------------------------------------------------------------------------------------ */

/* y = bn.weight (w x - mean) / sqrt(var + eps) + bn.bias, as one convolution with a bias. */
static err_t fold(const struct tensor_source *s, const char *name, float *w, float *bias, size_t out, size_t window)
{
    static const char *const part[4] = {"weight", "bias", "running_mean", "running_var"};
    char at[128];
    err_t err = ERR_OK;
    float *bn = mem_array(4 * out, sizeof *bn);
    snprintf(at, sizeof at, "%s.conv.weight", name);
    TRYD(s->get(s->ctx, at, w, out * window));
    for (size_t i = 0; i < 4; i++) {
        snprintf(at, sizeof at, "%s.bn.%s", name, part[i]);
        TRYD(s->get(s->ctx, at, bn + i * out, out));
    }
    for (size_t k = 0; k < out; k++) {
        double scale = bn[k] / sqrt(bn[3 * out + k] + bn_eps);
        for (size_t j = 0; j < window; j++) w[k * window + j] = (float)(scale * w[k * window + j]);
        bias[k] = (float)(bn[out + k] - scale * bn[2 * out + k]);
    }
done:
    mem_free(bn);
    return err;
}

err_t inception_load(const struct graph *g, struct params *p, const struct tensor_source *s)
{
    for (int i = 0; i < graph_nparams(g); i++) {
        const struct param_info *w = graph_param_info(g, i);
        if (w->buffer || w->ndim != 4) continue;
        const struct param_info *b = graph_param_info(g, i + 1); /* declared right after its weight */
        char name[96];
        snprintf(name, sizeof name, "%.*s", (int)(strlen(w->name) - strlen(".conv.weight")), w->name);
        float *v = mem_array(w->count + b->count, sizeof *v);
        err_t err = fold(s, name, v, v + w->count, b->count, w->count / b->count);
        if (!err) {
            params_set(p, i, v);
            params_set(p, i + 1, v + w->count);
        }
        mem_free(v);
        TRY(err);
    }
    return ERR_OK;
}

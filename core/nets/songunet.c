/* songunet: the U-Net of Song et al. 2021 as EDM (Karras et al. 2022) configures it for DDPM++: positional embedding, standard encoder
 * and decoder, box resampling. Reads top down like a forward pass; parameters are declared in the order of the published module. */
#include <math.h>
#include <stdarg.h>

#include "core/nets.h"
#include "core/nets/families.h"
#include "core/ops.h"

static const double norm_eps = 1e-6, skip_scale = 0.70710678118654752440;
static const double box[] = {1, 1};
enum { SKIPS = 256 };

/* Initial scales of the published configuration: layers whose output is added to something start near zero. */
static const double scale_plain = 1, scale_zero = 1e-5, scale_attention = 0.44721359549995793928; /* sqrt(0.2) */

struct build {
    struct graph *g;
    struct node *emb; /* of noise level, label and augmentation, {batch,1,1,emb_channels} */
};
enum resample { SAME, DOWN, UP };

static struct node *param(struct build *b, int ndim, const int *dims, struct init init, const char *fmt, ...)
    PRINTF(5, 6);
static struct node *param(struct build *b, int ndim, const int *dims, struct init init, const char *fmt, ...)
{
    char name[128] = "model.";
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(name + 6, sizeof name - 6, fmt, ap);
    va_end(ap);
    return graph_param(b->g, name, ndim, dims, init);
}

static struct node *linear(struct build *b, const char *name, struct node *x, int out, bool bias)
{
    struct init xavier = {.kind = INIT_XAVIER_UNIFORM, .scale = scale_plain};
    struct node *w = param(b, 2, (int[]){out, node_channels(x)}, xavier, "%s.weight", name);
    return op_linear(b->g, x, w, bias ? param(b, 1, &out, (struct init){0}, "%s.bias", name) : NULL);
}

static struct node *conv(struct build *b, const char *name, struct node *x, int out, int kernel, double scale)
{
    struct init xavier = {.kind = INIT_XAVIER_UNIFORM, .scale = scale};
    struct node *w = param(b, 4, (int[]){out, node_channels(x), kernel, kernel}, xavier, "%s.weight", name);
    return op_conv(b->g, x, w, param(b, 1, &out, (struct init){0}, "%s.bias", name));
}

static int groups_of(int channels)
{
    return channels / 4 < 32 ? channels / 4 : 32;
}

static struct node *norm(struct build *b, const char *name, struct node *x, bool silu, bool dropout)
{
    int c = node_channels(x);
    struct node *gamma = param(b, 1, &c, (struct init){.kind = INIT_ONE, .scale = 1}, "%s.weight", name);
    struct node *beta = param(b, 1, &c, (struct init){0}, "%s.bias", name);
    return op_group_norm(b->g, x, gamma, beta, (struct norm_opts){groups_of(c), norm_eps, silu, dropout});
}

/* The published module resamples inside its convolutions and stores the filter beside their weights. */
static struct node *resample(struct build *b, const char *name, struct node *x, enum resample mode)
{
    if (mode == SAME) return x;
    char buffer[128];
    snprintf(buffer, sizeof buffer, "model.%s.resample_filter", name);
    graph_buffer(b->g, buffer, 4, (int[]){1, 1, 2, 2}, (float[]){0.25f, 0.25f, 0.25f, 0.25f});
    return op_resample(b->g, x, box, 2, mode == UP);
}

static struct node *block(struct build *b, const char *name, struct node *x, int out, enum resample mode,
                          bool attention)
{
    struct graph *g = b->g;
    char at[96];
#define AT(part) (snprintf(at, sizeof at, "%s." part, name), at)
    struct node *h = norm(b, AT("norm0"), x, true, false);
    h = conv(b, AT("conv0"), resample(b, AT("conv0"), h, mode), out, 3, scale_plain);
    h = op_add_channel(g, h, linear(b, AT("affine"), b->emb, out, true));
    h = norm(b, AT("norm1"), h, true, true);
    h = conv(b, AT("conv1"), h, out, 3, scale_zero);
    struct node *skip = x;
    if (out != node_channels(x) || mode != SAME)
        skip = conv(b, AT("skip"), resample(b, AT("skip"), x, mode), out, 1, scale_plain);
    h = op_add(g, h, skip, skip_scale);
    if (!attention) return h;
    struct node *a = norm(b, AT("norm2"), h, false, false);
    a = op_attention(g, conv(b, AT("qkv"), a, 3 * out, 1, scale_attention), 1);
    return op_add(g, conv(b, AT("proj"), a, out, 1, scale_zero), h, skip_scale);
#undef AT
}

/* Labels enter times sqrt(label_dim), before the two layers; a row of zeros is "no label". */
static void embedding(struct build *b, const struct net_config *c, struct node *c_noise, struct node *labels,
                      struct node *augment)
{
    struct node *e = op_embed_positional(b->g, c_noise, c->width * c->noise_mult, true, false);
    if (labels)
        e = op_add(b->g, e, linear(b, "map_label", op_scale(b->g, labels, sqrt(c->label_dim)), node_channels(e), true),
                   1);
    if (augment) e = op_add(b->g, e, linear(b, "map_augment", augment, node_channels(e), false), 1);
    e = op_silu(b->g, linear(b, "map_layer0", e, c->width * c->emb_mult, true));
    b->emb = op_silu(b->g, linear(b, "map_layer1", e, c->width * c->emb_mult, true));
}

static bool listed(int resolution, const struct net_config *c)
{
    for (int i = 0; i < c->nattn; i++)
        if (c->attn[i] == resolution) return true;
    return false;
}

static struct node *unet(struct build *b, const struct net_config *c, struct node *x)
{
    struct node *skips[SKIPS];
    int nskips = 0;
    char name[64];
    const char *side = "enc";
#define NAME(fmt, ...) (snprintf(name, sizeof name, "%s.%dx%d_" fmt, side, res, res, __VA_ARGS__), name)
    for (int level = 0; level < c->nmult; level++) {
        int res = c->resolution >> level;
        if (level == 0) x = conv(b, NAME("%s", "conv"), x, c->width, 3, scale_plain);
        else x = block(b, NAME("%s", "down"), x, node_channels(x), DOWN, false);
        skips[nskips++] = x;
        for (int i = 0; i < c->blocks; i++)
            skips[nskips++] = x = block(b, NAME("block%d", i), x, c->width * c->mult[level], SAME, listed(res, c));
    }
    side = "dec";
    for (int level = c->nmult - 1; level >= 0; level--) {
        int res = c->resolution >> level;
        if (level == c->nmult - 1) {
            x = block(b, NAME("%s", "in0"), x, node_channels(x), SAME, true);
            x = block(b, NAME("%s", "in1"), x, node_channels(x), SAME, false);
        } else x = block(b, NAME("%s", "up"), x, node_channels(x), UP, false);
        for (int i = 0; i <= c->blocks; i++) {
            x = op_concat(b->g, x, skips[--nskips]);
            x = block(b, NAME("block%d", i), x, c->width * c->mult[level], SAME, i == c->blocks && listed(res, c));
        }
    }
    int res = c->resolution;
    x = norm(b, NAME("%s", "aux_norm"), x, true, false);
    return conv(b, NAME("%s", "aux_conv"), x, c->in_channels, 3, scale_zero);
#undef NAME
}

static err_t check(const struct net_config *c)
{
    if (c->nmult < 1 || c->nmult > NET_LEVELS) return fail(ERR_USAGE, "net.mult: 1 to %d resolutions", NET_LEVELS);
    if (c->resolution < 1 || c->resolution % (1 << (c->nmult - 1)))
        return fail(ERR_USAGE, "net.mult: images of %d pixels cannot be halved %d times", c->resolution, c->nmult - 1);
    if (c->blocks < 1 || c->nmult * (c->blocks + 1) > SKIPS) return fail(ERR_USAGE, "net.blocks: %d", c->blocks);
    if (c->in_channels < 1 || c->sigma_data <= 0) return fail(ERR_USAGE, "network: channels and sigma_data above 0");
    if (c->width < 4 || c->width % 2 || c->noise_mult < 1 || c->emb_mult < 1)
        return fail(ERR_USAGE, "net.width: %d (even, at least 4)", c->width);
    int before = c->width; /* group normalisation divides every channel count that occurs, joined skips included */
    for (int i = 0; i < c->nmult; i++) {
        int channels = c->width * c->mult[i], joined[] = {channels, before, channels + before, 2 * channels};
        for (size_t j = 0; j < ARRAY_LEN(joined); j++)
            if (joined[j] < 4 || joined[j] % groups_of(joined[j]))
                return fail(ERR_USAGE, "net.width: %d channels do not divide into %d groups", joined[j],
                            groups_of(joined[j]));
        before = channels;
    }
    return ERR_OK;
}

err_t songunet_build(struct graph *g, const struct net_config *c)
{
    TRY(check(c));
    struct build b = {.g = g};
    struct node *x = graph_input(g, "x", c->resolution, c->resolution, c->in_channels);
    struct node *sigma = graph_input(g, "sigma", 1, 1, 1);
    struct node *labels = c->label_dim ? graph_input(g, "labels", 1, 1, c->label_dim) : NULL;
    struct node *augment = c->augment_dim ? graph_input_optional(g, "augment", 1, 1, c->augment_dim) : NULL;
    struct precond pc = net_precond_in(g, c, x, sigma);
    bool time = c->precond == PRECOND_FLOW; /* in [0, 1]: spread over the positions that the embedding tells apart */
    embedding(&b, c, time ? op_scale(g, pc.c_noise, 1000) : pc.c_noise, labels, augment);
    struct node *f = unet(&b, c, pc.x_in);
    graph_output(g, "F", f);
    graph_output(g, "D", net_precond_out(g, c, x, f, pc));
    return ERR_OK;
}

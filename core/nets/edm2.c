/* edm2: the U-Net of Karras et al. 2024 (EDM2, configuration G). Every layer keeps the magnitude of what passes through it: weights are
 * normalised (op_mp_weight), sums, concatenations and SiLU are divided by what they would add, and a channel of ones stands in for all
 * biases. The embedding acts as a gate, one trained gain a block, zero at first. Reads top down like a forward pass; parameters are
 * declared in the order of the published module. */
#include <math.h>
#include <stdarg.h>
#include <stdio.h>

#include "core/nets.h"
#include "core/nets/families.h"
#include "core/ops.h"

enum { SKIPS = 256, HEAD_CHANNELS = 64, LOGVAR_CHANNELS = 128 };
static const double two_pi = 6.28318530717958647692;

struct build {
    struct graph *g;
    const struct net_config *c;
    struct node *emb; /* of noise level and label, {batch,1,1,emb_channels} */
    double concat_balance, res_balance, attn_balance;
    double taps[NET_LEVELS];
    int ntaps, res; /* resolution of the block at hand */
};
enum resample { SAME, DOWN, UP };

static struct node *gain(struct build *b, const char *name)
{
    return graph_param(b->g, name, 0, NULL, (struct init){0});
}

/* The weight of a layer without bias; kernel 0: of a linear layer. gained: NULL or its gain. */
static struct node *weight(struct build *b, const char *name, int out, int in, int kernel, struct node *gained)
{
    char at[128];
    struct init init = {.kind = INIT_NORMAL, .scale = 1};
    snprintf(at, sizeof at, "%s.weight", name);
    return op_mp_weight(b->g, graph_param(b->g, at, kernel ? 4 : 2, (int[]){out, in, kernel, kernel}, init), gained);
}

static struct node *conv(struct build *b, struct node *x, struct node *w)
{
    return op_conv(b->g, x, w, NULL);
}

static struct node *fourier(struct build *b, const char *name, struct node *c_noise, int channels)
{
    char at[64];
    snprintf(at, sizeof at, "%s.freqs", name);
    struct node *f = graph_buffer_drawn(b->g, at, 1, &channels, (struct init){.kind = INIT_NORMAL, .scale = two_pi});
    snprintf(at, sizeof at, "%s.phases", name);
    struct node *p = graph_buffer_drawn(b->g, at, 1, &channels, (struct init){.kind = INIT_UNIFORM, .scale = two_pi});
    return op_mp_fourier(b->g, c_noise, f, p);
}

static int heads_of(const struct net_config *c, int channels)
{
    return channels / (c->head ? c->head : HEAD_CHANNELS);
}

static struct node *block(struct build *b, const char *name, struct node *x, int out, bool encoder, enum resample mode,
                          bool attention)
{
    struct graph *g = b->g;
    char at[96];
    int in = node_channels(x), heads = attention ? heads_of(b->c, out) : 0;
#define AT(part) (snprintf(at, sizeof at, "%s." part, name), at)
    struct node *emb_gain = gain(b, AT("emb_gain"));
    struct node *conv_res0 = weight(b, AT("conv_res0"), out, encoder ? out : in, 3, NULL);
    struct node *emb_linear = weight(b, AT("emb_linear"), out, node_channels(b->emb), 0, emb_gain);
    struct node *conv_res1 = weight(b, AT("conv_res1"), out, out, 3, NULL);
    struct node *conv_skip = in != out ? weight(b, AT("conv_skip"), out, in, 1, NULL) : NULL;
    struct node *attn_qkv = heads ? weight(b, AT("attn_qkv"), 3 * out, out, 1, NULL) : NULL;
    struct node *attn_proj = heads ? weight(b, AT("attn_proj"), out, out, 1, NULL) : NULL;
#undef AT
    if (mode != SAME) x = op_resample(g, x, b->taps, b->ntaps, mode == UP);
    if (encoder) {
        if (conv_skip) x = conv(b, x, conv_skip);
        x = op_pixel_norm(g, x);
    }
    struct node *y = conv(b, op_mp_silu(g, x), conv_res0);
    y = op_mp_silu(g, op_gate(g, y, op_linear(g, b->emb, emb_linear, NULL)));
    if (!b->c->dropout_res || b->res <= b->c->dropout_res) y = op_dropout(g, y);
    y = conv(b, y, conv_res1);
    if (!encoder && conv_skip) x = conv(b, x, conv_skip);
    x = op_mp_add(g, x, y, b->res_balance);
    if (heads) {
        y = op_mp_attention(g, conv(b, x, attn_qkv), heads);
        x = op_mp_add(g, x, conv(b, y, attn_proj), b->attn_balance);
    }
    return b->c->clip > 0 ? op_clip(g, x, b->c->clip) : x;
}

/* Labels enter times sqrt(label_dim), so that a one-hot row has an RMS of 1; a row of zeros is "no label". */
static void embedding(struct build *b, struct node *c_noise, struct node *labels)
{
    const struct net_config *c = b->c;
    int widest = 0;
    for (int i = 0; i < c->nmult; i++) widest = c->mult[i] > widest ? c->mult[i] : widest;
    int noise = c->width * (c->noise_mult ? c->noise_mult : c->mult[0]);
    int channels = c->width * (c->emb_mult ? c->emb_mult : widest);
    struct node *f = fourier(b, "unet.emb_fourier", c_noise, noise);
    struct node *e = op_linear(b->g, f, weight(b, "unet.emb_noise", channels, noise, 0, NULL), NULL);
    if (labels) {
        struct node *w = weight(b, "unet.emb_label", channels, c->label_dim, 0, NULL);
        struct node *l = op_linear(b->g, op_scale(b->g, labels, sqrt(c->label_dim)), w, NULL);
        e = op_mp_add(b->g, e, l, c->label_balance > 0 ? c->label_balance : 0.5);
    }
    b->emb = op_mp_silu(b->g, e);
}

static bool attends(const struct net_config *c, int res)
{
    for (int i = 0; i < c->nattn; i++)
        if (c->attn[i] == res) return true;
    return false;
}

static struct node *unet(struct build *b, struct node *x, struct node *c_noise, struct node *labels)
{
    const struct net_config *c = b->c;
    struct node *skips[SKIPS], *out_gain = gain(b, "unet.out_gain");
    int n = 0;
    char name[64];
    const char *side = "enc";
#define NAME(fmt, ...) (snprintf(name, sizeof name, "unet.%s.%dx%d_" fmt, side, b->res, b->res, __VA_ARGS__), name)
    embedding(b, c_noise, labels);
    x = op_append_one(b->g, x);
    for (int level = 0; level < c->nmult; level++) {
        int out = c->width * c->mult[level];
        b->res = c->resolution >> level;
        if (level == 0) x = conv(b, x, weight(b, NAME("%s", "conv"), out, node_channels(x), 3, NULL));
        else x = block(b, NAME("%s", "down"), x, node_channels(x), true, DOWN, false);
        skips[n++] = x;
        for (int i = 0; i < c->blocks; i++)
            skips[n++] = x = block(b, NAME("block%d", i), x, out, true, SAME, attends(c, b->res));
    }
    side = "dec";
    for (int level = c->nmult - 1; level >= 0; level--) {
        int out = c->width * c->mult[level];
        b->res = c->resolution >> level;
        if (level == c->nmult - 1) {
            x = block(b, NAME("%s", "in0"), x, node_channels(x), false, SAME, true);
            x = block(b, NAME("%s", "in1"), x, node_channels(x), false, SAME, false);
        } else x = block(b, NAME("%s", "up"), x, node_channels(x), false, UP, false);
        for (int i = 0; i <= c->blocks; i++) {
            x = op_mp_concat(b->g, x, skips[--n], b->concat_balance);
            x = block(b, NAME("block%d", i), x, out, false, SAME, attends(c, b->res));
        }
    }
#undef NAME
    return conv(b, x, weight(b, "unet.out_conv", c->in_channels, node_channels(x), 3, out_gain));
}

/* u(sigma), the logarithm of the error that the loss expects (Karras et al. 2024, section 2.2): for pretraining only. */
static struct node *logvar(struct build *b, struct node *c_noise)
{
    int channels = b->c->logvar_channels ? b->c->logvar_channels : LOGVAR_CHANNELS;
    struct node *f = fourier(b, "logvar_fourier", c_noise, channels);
    return op_linear(b->g, f, weight(b, "logvar_linear", 1, channels, 0, NULL), NULL);
}

static err_t check_heads(const struct net_config *c, int channels)
{
    int heads = heads_of(c, channels);
    if (heads && channels % heads)
        return fail(ERR_USAGE, "net.head: %d channels do not divide into %d heads", channels, heads);
    return ERR_OK;
}

static err_t check(const struct net_config *c)
{
    if (c->nmult < 1 || c->nmult > NET_LEVELS) return fail(ERR_USAGE, "net.mult: 1 to %d resolutions", NET_LEVELS);
    if (c->resolution < 1 || c->resolution % (1 << (c->nmult - 1)))
        return fail(ERR_USAGE, "net.mult: images of %d pixels cannot be halved %d times", c->resolution, c->nmult - 1);
    if (c->blocks < 1 || c->nmult * (c->blocks + 1) > SKIPS) return fail(ERR_USAGE, "net.blocks: %d", c->blocks);
    if (c->in_channels < 1 || c->sigma_data <= 0) return fail(ERR_USAGE, "network: channels and sigma_data above 0");
    if (c->width < 1 || c->emb_mult < 0 || c->noise_mult < 0) return fail(ERR_USAGE, "net.width: %d", c->width);
    if (c->augment_dim) return fail(ERR_USAGE, "net.augment: an EDM2 network takes no augmentation labels");
    if (c->encoder || c->decoder) return fail(ERR_USAGE, "net.encoder, net.decoder: EDM2 has only its own");
    if (c->nfilter % 2) return fail(ERR_USAGE, "net.filter: an even number of taps");
    if (!(c->clip >= 0)) return fail(ERR_USAGE, "net.clip: %g", c->clip);
    for (int i = 0; i < c->nmult; i++) {
        if (c->mult[i] < 1) return fail(ERR_USAGE, "net.mult: %d", c->mult[i]);
        if (i == c->nmult - 1 || attends(c, c->resolution >> i)) TRY(check_heads(c, c->width * c->mult[i]));
    }
    return ERR_OK;
}

err_t edm2_build(struct graph *g, const struct net_config *c)
{
    TRY(check(c));
    struct build b = {.g = g,
                      .c = c,
                      .concat_balance = c->concat_balance > 0 ? c->concat_balance : 0.5,
                      .res_balance = c->res_balance > 0 ? c->res_balance : 0.3,
                      .attn_balance = c->attn_balance > 0 ? c->attn_balance : 0.3,
                      .taps = {1, 1},
                      .ntaps = c->nfilter ? c->nfilter : 2};
    for (int i = 0; i < c->nfilter; i++) b.taps[i] = c->filter[i];
    struct node *x = graph_input(g, "x", c->resolution, c->resolution, c->in_channels);
    struct node *sigma = graph_input(g, "sigma", 1, 1, 1);
    struct node *labels = c->label_dim ? graph_input(g, "labels", 1, 1, c->label_dim) : NULL;
    struct precond pc = net_precond_in(g, c, x, sigma);
    struct node *f = unet(&b, pc.x_in, pc.c_noise, labels);
    graph_output(g, "F", f);
    graph_output(g, "D", net_precond_out(g, c, x, f, pc));
    if (c->logvar) graph_output_aside(g, "logvar", logvar(&b, pc.c_noise));
    return ERR_OK;
}

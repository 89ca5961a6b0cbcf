/* songunet: the U-Net of Song et al. 2021 as EDM (Karras et al. 2022) configures it. DDPM++: positional embedding, standard encoder and
 * decoder, box resampling. NCSN++: Fourier embedding, residual encoder, 1,3,3,1 resampling. The auxiliary path of an encoder is the
 * image itself (skip) or the last value that left it (residual), brought down beside the blocks and added after each halving; that
 * of a decoder is an image at each resolution, brought up and summed. Reads top down like a forward pass; parameters are declared in
 * the order of the published module. */
#include <math.h>
#include <stdio.h>

#include "core/nets/families.h"
#include "core/nets/unet.h"

#define ROOT_HALF 0.70710678118654752440

/* Initial scales of the published configuration: layers whose output is added to something start near zero. */
static const struct unet published = {.eps = 1e-6,
                                      .skip_scale = ROOT_HALF,
                                      .project = true,
                                      .plain = {INIT_XAVIER_UNIFORM, 1, 0},
                                      .zero = {INIT_XAVIER_UNIFORM, 1e-5, 0},
                                      .attention = {INIT_XAVIER_UNIFORM, 0.44721359549995793928, 0}}; /* sqrt(0.2) */

/* Labels enter times sqrt(label_dim), before the two layers; a row of zeros is "no label". */
static void embedding(struct unet *u, const struct net_config *c, const struct unet_inputs *in)
{
    struct node *e, *labels;
    int channels = c->width * c->noise_mult, half = channels / 2;
    if (c->fourier) {
        struct init drawn = {.kind = INIT_NORMAL, .scale = c->fourier_scale};
        e = op_embed_fourier(u->g, in->c_noise, graph_buffer_drawn(u->g, "model.map_noise.freqs", 1, &half, drawn),
                             false);
    } else e = op_embed_positional(u->g, in->c_noise, channels, true, false);
    if (in->labels) {
        labels = op_scale(u->g, in->labels, sqrt(c->label_dim));
        e = op_add(u->g, e, unet_linear(u, "map_label", labels, channels, true, u->plain), 1);
    }
    if (in->augment) e = op_add(u->g, e, unet_linear(u, "map_augment", in->augment, channels, false, u->plain), 1);
    e = op_silu(u->g, unet_linear(u, "map_layer0", e, c->width * c->emb_mult, true, u->plain));
    u->emb = op_silu(u->g, unet_linear(u, "map_layer1", e, c->width * c->emb_mult, true, u->plain));
}

static const char *name_of(char name[UNET_NAME], const char *side, int res, const char *part)
{
    snprintf(name, UNET_NAME, "%s.%dx%d_%s", side, res, res, part);
    return name;
}
static const char *block_name(char name[UNET_NAME], const char *side, int res, int i)
{
    snprintf(name, UNET_NAME, "%s.%dx%d_block%d", side, res, res, i);
    return name;
}

/* Fills skips, the values that the decoder takes back in reverse order; returns the last. */
static struct node *encoder(struct unet *u, const struct net_config *c, struct node *x, struct node **skips, int *n)
{
    char name[UNET_NAME];
    struct node *aux = x;
    for (int level = 0; level < c->nmult; level++) {
        int res = u->resolution = c->resolution >> level;
#define NAME(part) name_of(name, "enc", res, part)
        if (level == 0) x = unet_conv(u, NAME("conv"), x, c->width, 3, u->plain);
        else x = unet_block(u, NAME("down"), x, node_channels(x), UNET_DOWN, false);
        if (level && c->encoder == CODER_SKIP) {
            aux = unet_resample(u, NAME("aux_down"), aux, UNET_DOWN);
            struct node *to = unet_conv(u, NAME("aux_skip"), aux, node_channels(x), 1, u->plain);
            x = op_add(u->g, x, to, 1);
        }
        if (level && c->encoder == CODER_RESIDUAL) {
            aux = unet_conv_down(u, NAME("aux_residual"), aux, node_channels(x), 3, u->plain);
            x = aux = op_add(u->g, x, aux, ROOT_HALF);
        }
        skips[(*n)++] = x;
        for (int i = 0; i < c->blocks; i++)
            skips[(*n)++] = x = unet_block(u, block_name(name, "enc", res, i), x, c->width * c->mult[level], UNET_SAME,
                                           net_attends(c, res));
#undef NAME
    }
    return x;
}

static struct node *decoder(struct unet *u, const struct net_config *c, struct node *x, struct node **skips, int n)
{
    char name[UNET_NAME];
    struct node *aux = NULL;
    for (int level = c->nmult - 1; level >= 0; level--) {
        int res = u->resolution = c->resolution >> level;
#define NAME(part) name_of(name, "dec", res, part)
        if (level == c->nmult - 1) {
            x = unet_block(u, NAME("in0"), x, node_channels(x), UNET_SAME, true);
            x = unet_block(u, NAME("in1"), x, node_channels(x), UNET_SAME, false);
        } else x = unet_block(u, NAME("up"), x, node_channels(x), UNET_UP, false);
        for (int i = 0; i <= c->blocks; i++) {
            x = op_concat(u->g, x, skips[--n]);
            x = unet_block(u, block_name(name, "dec", res, i), x, c->width * c->mult[level], UNET_SAME,
                           i == c->blocks && net_attends(c, res));
        }
        if (level && c->decoder != CODER_SKIP) continue;
        if (aux) aux = unet_resample(u, NAME("aux_up"), aux, UNET_UP);
        struct node *y = unet_norm(u, NAME("aux_norm"), x, true);
        y = unet_conv(u, NAME("aux_conv"), y, c->in_channels, 3, u->zero);
        aux = aux ? op_add(u->g, y, aux, 1) : y;
#undef NAME
    }
    return aux;
}

static err_t check(const struct unet *u, const struct net_config *c)
{
    TRY(unet_check(u, c, c->width));
    if (c->noise_mult < 1) return fail(ERR_USAGE, "net.noise_mult: %d (at least 1)", c->noise_mult);
    if (c->width % 2 && c->noise_mult % 2)
        return fail(ERR_USAGE, "net.width, net.noise_mult: %d times %d is odd, an embedding has pairs", c->width,
                    c->noise_mult);
    if (c->decoder == CODER_RESIDUAL)
        return fail(ERR_USAGE, "net.decoder: standard or skip; only encoders are residual");
    if (c->encoder == CODER_RESIDUAL && u->ntaps > 4)
        return fail(ERR_USAGE, "net.filter: at most 4 taps with net.encoder = residual, not %d", u->ntaps);
    return ERR_OK;
}

err_t songunet_build(struct graph *g, const struct net_config *c)
{
    struct unet u = published;
    u.g = g;
    u.dropout_below = c->dropout_res;
    unet_filter(&u, c);
    TRY(check(&u, c));
    struct node *skips[UNET_SKIPS];
    int n = 0;
    struct unet_inputs in = unet_begin(&u, c);
    embedding(&u, c, &in);
    struct node *x = encoder(&u, c, in.x_in, skips, &n);
    unet_end(&u, c, &in, decoder(&u, c, x, skips, n));
    return ERR_OK;
}

/* adm: the U-Net of Dhariwal & Nichol 2021 as EDM (Karras et al. 2022) configures it. The embedding scales and shifts what the second
 * normalisation of a block gives; resampling blocks have no weights on their skip path; attention has a head for every 64 channels,
 * so fewer channels than that have none; labels join after the second layer of the embedding. Reads top down like a forward pass. */
#include <math.h>
#include <stdio.h>

#include "core/nets/families.h"
#include "core/nets/unet.h"

#define ROOT_THIRD 0.57735026918962576451
static const struct unet published = {.eps = 1e-5,
                                      .skip_scale = 1,
                                      .adaptive = true,
                                      .plain = {INIT_KAIMING_UNIFORM, ROOT_THIRD, ROOT_THIRD},
                                      .attention = {INIT_KAIMING_UNIFORM, ROOT_THIRD, ROOT_THIRD},
                                      .zero = {INIT_ZERO, 0, 0}};

static void embedding(struct unet *u, const struct net_config *c, const struct unet_inputs *in)
{
    struct node *e = op_embed_positional(u->g, in->c_noise, c->width, false, true);
    int channels = c->width * c->emb_mult;
    if (in->augment) e = op_add(u->g, e, unet_linear(u, "map_augment", in->augment, c->width, false, u->zero), 1);
    e = op_silu(u->g, unet_linear(u, "map_layer0", e, channels, true, u->plain));
    e = unet_linear(u, "map_layer1", e, channels, true, u->plain);
    if (in->labels) {
        struct unet_init init = {INIT_KAIMING_NORMAL, sqrt(c->label_dim), 0};
        e = op_add(u->g, e, unet_linear(u, "map_label", in->labels, channels, false, init), 1);
    }
    u->emb = op_silu(u->g, e);
}

static struct node *unet(struct unet *u, const struct net_config *c, struct node *x)
{
    struct node *skips[UNET_SKIPS];
    char name[UNET_NAME];
    int n = 0;
    const char *side = "enc";
#define NAME(fmt, ...) (snprintf(name, sizeof name, "%s.%dx%d_" fmt, side, res, res, __VA_ARGS__), name)
    for (int level = 0; level < c->nmult; level++) {
        int res = u->resolution = c->resolution >> level, out = c->width * c->mult[level];
        if (level == 0) x = unet_conv(u, NAME("%s", "conv"), x, out, 3, u->plain);
        else x = unet_block(u, NAME("%s", "down"), x, node_channels(x), UNET_DOWN, false);
        skips[n++] = x;
        for (int i = 0; i < c->blocks; i++)
            skips[n++] = x = unet_block(u, NAME("block%d", i), x, out, UNET_SAME, net_attends(c, res));
    }
    side = "dec";
    for (int level = c->nmult - 1; level >= 0; level--) {
        int res = u->resolution = c->resolution >> level, out = c->width * c->mult[level];
        if (level == c->nmult - 1) {
            x = unet_block(u, NAME("%s", "in0"), x, node_channels(x), UNET_SAME, true);
            x = unet_block(u, NAME("%s", "in1"), x, node_channels(x), UNET_SAME, false);
        } else x = unet_block(u, NAME("%s", "up"), x, node_channels(x), UNET_UP, false);
        for (int i = 0; i <= c->blocks; i++) {
            x = op_concat(u->g, x, skips[--n]);
            x = unet_block(u, NAME("block%d", i), x, out, UNET_SAME, net_attends(c, res));
        }
    }
#undef NAME
    return unet_conv(u, "out_conv", unet_norm(u, "out_norm", x, true), c->in_channels, 3, u->zero);
}

err_t adm_build(struct graph *g, const struct net_config *c)
{
    struct unet u = published;
    u.g = g;
    u.dropout_below = c->dropout_res;
    u.head = c->head ? c->head : 64;
    u.ntaps = 2; /* the published module has no other filter */
    u.taps[0] = u.taps[1] = 1;
    if (c->width % 2) return fail(ERR_USAGE, "net.width: %d is odd, an embedding has pairs", c->width);
    TRY(unet_check(&u, c, c->nmult > 0 ? c->width * c->mult[0] : 0));
    struct unet_inputs in = unet_begin(&u, c);
    embedding(&u, c, &in);
    unet_end(&u, c, &in, unet(&u, c, in.x_in));
    return ERR_OK;
}

/* unet: the layers and the residual block of SongUNet and DhariwalUNet, in the order in which the published modules declare them. */
#include "core/nets/unet.h"

#include <stdio.h>

#include "core/nets/families.h"

enum { GROUPS = 32, GROUP_CHANNELS = 4, NORM_CHANNELS = 4096 /* what the kernels take */ };

static int groups_of(int channels)
{
    return channels / GROUP_CHANNELS < GROUPS ? channels / GROUP_CHANNELS : GROUPS;
}

bool net_attends(const struct net_config *c, int resolution)
{
    for (int i = 0; i < c->nattn; i++)
        if (c->attn[i] == resolution) return true;
    return false;
}

void unet_filter(struct unet *u, const struct net_config *c)
{
    u->ntaps = c->nfilter ? c->nfilter : 2;
    for (int i = 0; i < u->ntaps; i++) u->taps[i] = c->nfilter ? c->filter[i] : 1;
}

/* ---- what can be built --------------------------------------------------------------------------------------------------- */

static err_t check_norm(int channels)
{
    if (channels < GROUP_CHANNELS || channels % groups_of(channels))
        return fail(ERR_USAGE, "net.width: %d channels do not divide into %d groups", channels,
                    channels < GROUP_CHANNELS ? 1 : groups_of(channels));
    if (channels > NORM_CHANNELS)
        return fail(ERR_USAGE, "net.width: %d channels in one layer, at most %d are possible", channels, NORM_CHANNELS);
    return ERR_OK;
}

static err_t check_block(const struct unet *u, int in, int out, bool attention)
{
    TRY(check_norm(in));
    TRY(check_norm(out));
    int heads = u->head ? out / u->head : 1;
    if (attention && heads && out % heads)
        return fail(ERR_USAGE, "net.head: %d channels do not divide into %d heads (of %d channels)", out, heads,
                    u->head);
    return ERR_OK;
}

/* Goes the way of the network, with channel counts only. */
static err_t check_channels(const struct unet *u, const struct net_config *c, int first)
{
    int skips[UNET_SKIPS], n = 0, at = first;
    for (int level = 0; level < c->nmult; level++) {
        if (level) TRY(check_block(u, at, at, false));
        skips[n++] = at;
        for (int i = 0; i < c->blocks; i++) {
            int out = c->width * c->mult[level];
            TRY(check_block(u, at, out, net_attends(c, c->resolution >> level)));
            skips[n++] = at = out;
        }
    }
    TRY(check_block(u, at, at, true));
    for (int level = c->nmult - 1; level >= 0; level--)
        for (int i = 0; i <= c->blocks; i++) {
            int out = c->width * c->mult[level];
            TRY(check_block(u, at + skips[--n], out, net_attends(c, c->resolution >> level)));
            at = out;
        }
    return ERR_OK;
}

err_t unet_check(const struct unet *u, const struct net_config *c, int first)
{
    if (c->nmult < 1 || c->nmult > NET_LEVELS) return fail(ERR_USAGE, "net.mult: 1 to %d resolutions", NET_LEVELS);
    if (c->resolution < 1 || c->resolution % (1 << (c->nmult - 1)))
        return fail(ERR_USAGE, "net.mult: images of %d pixels cannot be halved %d times", c->resolution, c->nmult - 1);
    if (c->blocks < 1 || c->nmult * (c->blocks + 1) > UNET_SKIPS) return fail(ERR_USAGE, "net.blocks: %d", c->blocks);
    if (c->in_channels < 1 || c->sigma_data <= 0) return fail(ERR_USAGE, "network: channels and sigma_data above 0");
    if (c->width < 4) return fail(ERR_USAGE, "net.width: %d (at least 4)", c->width);
    if (c->emb_mult < 1) return fail(ERR_USAGE, "net.emb_mult: %d (at least 1)", c->emb_mult);
    for (int i = 0; i < c->nmult; i++)
        if (c->mult[i] < 1 || c->mult[i] > NORM_CHANNELS) return fail(ERR_USAGE, "net.mult: %d", c->mult[i]);
    if (c->width > NORM_CHANNELS) return fail(ERR_USAGE, "net.width: %d (at most %d)", c->width, NORM_CHANNELS);
    double sum = 0;
    for (int i = 0; i < u->ntaps; i++) sum += u->taps[i];
    if (u->ntaps > NET_LEVELS || u->ntaps % 2 || !(sum > 0 || sum < 0))
        return fail(ERR_USAGE, "net.filter: %d taps; an even number up to %d, with a sum that is not 0", u->ntaps,
                    NET_LEVELS);
    return check_channels(u, c, first);
}

/* ---- layers ------------------------------------------------------------------------------------------------------------------ */

static struct node *param(struct unet *u, const char *name, const char *part, int ndim, const int *dims,
                          struct init init)
{
    char full[UNET_NAME + 32];
    snprintf(full, sizeof full, "model.%s.%s", name, part);
    return graph_param(u->g, full, ndim, dims, init);
}

static struct node *weight_of(struct unet *u, const char *name, int ndim, const int *dims, struct unet_init init)
{
    struct init start = {.kind = init.weight != 0 ? init.kind : INIT_ZERO, .scale = init.weight};
    return param(u, name, "weight", ndim, dims, start);
}

static struct node *bias_of(struct unet *u, const char *name, int out, int fan_in, int area, struct unet_init init)
{
    struct init start = {.kind = init.bias != 0 ? init.kind : INIT_ZERO,
                         .scale = init.bias,
                         .fan_in = fan_in * area,
                         .fan_out = out * area};
    return param(u, name, "bias", 1, &out, start);
}

struct node *unet_linear(struct unet *u, const char *name, struct node *x, int out, bool bias, struct unet_init init)
{
    int in = node_channels(x);
    struct node *w = weight_of(u, name, 2, (int[]){out, in}, init);
    return op_linear(u->g, x, w, bias ? bias_of(u, name, out, in, 1, init) : NULL);
}

static struct node *conv_padded(struct unet *u, const char *name, struct node *x, int out, int kernel, int pad,
                                struct unet_init init)
{
    int in = node_channels(x);
    struct node *w = weight_of(u, name, 4, (int[]){out, in, kernel, kernel}, init);
    struct node *b = bias_of(u, name, out, in, kernel * kernel, init);
    return op_conv_opts(u->g, x, w, b, (struct conv_opts){1, pad, pad});
}

struct node *unet_conv(struct unet *u, const char *name, struct node *x, int out, int kernel, struct unet_init init)
{
    return conv_padded(u, name, x, out, kernel, kernel / 2, init);
}

static void filter_buffer(struct unet *u, const char *name)
{
    char full[UNET_NAME + 32];
    float f[NET_LEVELS * NET_LEVELS];
    double sum = 0;
    for (int i = 0; i < u->ntaps; i++) sum += u->taps[i];
    for (int i = 0; i < u->ntaps; i++)
        for (int j = 0; j < u->ntaps; j++) f[i * u->ntaps + j] = (float)(u->taps[i] * u->taps[j] / (sum * sum));
    snprintf(full, sizeof full, "model.%s.resample_filter", name);
    graph_buffer(u->g, full, 4, (int[]){1, 1, u->ntaps, u->ntaps}, f);
}

/* The bias is added before the filter here and after it there; without padding the filter passes a constant on. */
struct node *unet_conv_down(struct unet *u, const char *name, struct node *x, int out, int kernel,
                            struct unet_init init)
{
    x = conv_padded(u, name, x, out, kernel, kernel / 2 + (u->ntaps - 1) / 2, init);
    filter_buffer(u, name);
    return op_resample_inside(u->g, x, u->taps, u->ntaps);
}

static struct node *norm(struct unet *u, const char *name, struct node *x, struct node *e, bool silu, bool dropout)
{
    int c = node_channels(x);
    struct node *gamma = param(u, name, "weight", 1, &c, (struct init){.kind = INIT_ONE, .scale = 1});
    struct node *beta = param(u, name, "bias", 1, &c, (struct init){0});
    return op_group_norm_adaptive(u->g, x, gamma, beta, e, (struct norm_opts){groups_of(c), u->eps, silu, dropout});
}

struct node *unet_norm(struct unet *u, const char *name, struct node *x, bool silu)
{
    return norm(u, name, x, NULL, silu, false);
}

/* The published module resamples inside its convolutions and stores the filter beside their weights. */
struct node *unet_resample(struct unet *u, const char *name, struct node *x, enum unet_resample mode)
{
    if (mode == UNET_SAME) return x;
    filter_buffer(u, name);
    return op_resample(u->g, x, u->taps, u->ntaps, mode == UNET_UP);
}

/* ---- the block ----------------------------------------------------------------------------------------------------------------- */

static const char *part_of(char at[UNET_NAME], const char *block, const char *part)
{
    snprintf(at, UNET_NAME, "%s.%s", block, part);
    return at;
}

struct node *unet_block(struct unet *u, const char *name, struct node *x, int out, enum unet_resample mode,
                        bool attention)
{
    struct graph *g = u->g;
    char at[UNET_NAME];
#define AT(part) part_of(at, name, part)
    struct node *h = unet_norm(u, AT("norm0"), x, true);
    h = unet_conv(u, AT("conv0"), unet_resample(u, AT("conv0"), h, mode), out, 3, u->plain);
    bool dropout = !u->dropout_below || u->resolution <= u->dropout_below;
    if (u->adaptive) {
        struct node *e = unet_linear(u, AT("affine"), u->emb, 2 * out, true, u->plain);
        h = norm(u, AT("norm1"), h, e, true, dropout);
    } else {
        h = op_add_channel(g, h, unet_linear(u, AT("affine"), u->emb, out, true, u->plain));
        h = norm(u, AT("norm1"), h, NULL, true, dropout);
    }
    h = unet_conv(u, AT("conv1"), h, out, 3, u->zero);
    struct node *skip = unet_resample(u, AT("skip"), x, mode);
    if (out != node_channels(x) || (u->project && mode != UNET_SAME))
        skip = unet_conv(u, AT("skip"), skip, out, 1, u->plain);
    h = op_add(g, h, skip, u->skip_scale);
    int heads = !attention ? 0 : u->head ? out / u->head : 1;
    if (!heads) return h;
    struct node *a = unet_norm(u, AT("norm2"), h, false);
    a = op_attention(g, unet_conv(u, AT("qkv"), a, 3 * out, 1, u->attention), heads);
    return op_add(g, unet_conv(u, AT("proj"), a, out, 1, u->zero), h, u->skip_scale);
#undef AT
}

/* ---- before and after -------------------------------------------------------------------------------------------------------------- */

struct unet_inputs unet_begin(struct unet *u, const struct net_config *c)
{
    struct graph *g = u->g;
    struct unet_inputs in = {.x = graph_input(g, "x", c->resolution, c->resolution, c->in_channels)};
    struct node *sigma = graph_input(g, "sigma", 1, 1, 1);
    if (c->label_dim) in.labels = graph_input(g, "labels", 1, 1, c->label_dim);
    if (c->augment_dim) in.augment = graph_input_optional(g, "augment", 1, 1, c->augment_dim);
    in.pc = net_precond_in(g, c, in.x, sigma);
    in.x_in = in.pc.x_in;
    in.c_noise = in.pc.c_noise;
    /* a time in [0, 1] is spread over the positions that the embedding tells apart */
    if (c->precond == PRECOND_FLOW && !c->fourier) in.c_noise = op_scale(g, in.c_noise, 1000);
    return in;
}

void unet_end(struct unet *u, const struct net_config *c, const struct unet_inputs *in, struct node *f)
{
    graph_output(u->g, "F", f);
    graph_output(u->g, "D", net_precond_out(u->g, c, in->x, f, in->pc));
}

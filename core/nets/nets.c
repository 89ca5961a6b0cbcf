/* nets: which families exist, and the configurations people know by name. */
#include <string.h>

#include "core/nets.h"
#include "core/nets/families.h"
#include "core/spec.h"

static const char *const coders[] = {"standard", "skip", "residual"}; /* by CODER_ */

static const struct net_family families[] = {{"songunet", songunet_build}, {"adm", adm_build}, {"mlp", mlp_build}};

/* Karras et al. 2022, Table 7: CIFAR-10, DDPM++. */
#define CIFAR10_DDPMPP                                                                                                 \
    .family = "songunet", .resolution = 32, .in_channels = 3, .width = 128, .mult = {2, 2, 2}, .nmult = 3,             \
    .blocks = 4, .attn = {16}, .nattn = 1, .emb_mult = 4, .noise_mult = 1, .sigma_data = 0.5

const struct net_preset net_presets[] = {
    {"cifar10-ddpmpp", "EDM's CIFAR-10 network, unconditional: the one ECT tunes", {CIFAR10_DDPMPP}},
    {"cifar10-ddpmpp-cond", "the same, class-conditional", {CIFAR10_DDPMPP, .label_dim = 10}},
    {"cifar10-ddpmpp-aug",
     "the same, with augmentation labels, as EDM pretrains it",
     {CIFAR10_DDPMPP, .augment_dim = 9}},
    {"digits",
     "the demo's network for 8x8 digits",
     {.family = "songunet",
      .resolution = 8,
      .in_channels = 1,
      .width = 16,
      .mult = {1, 2},
      .nmult = 2,
      .blocks = 1,
      .attn = {4},
      .nattn = 1,
      .emb_mult = 4,
      .noise_mult = 1,
      .sigma_data = 0.5}},
    {NULL, NULL, {.family = ""}}};

err_t net_config_from_spec(struct net_config *c, const struct spec *s, int resolution, int channels, int classes,
                           double sigma_data)
{
    if (s->net_mult.n < 1 || s->net_mult.n > NET_LEVELS)
        return fail(ERR_USAGE, "net.mult: 1 to %d resolutions are possible, not %d", NET_LEVELS, s->net_mult.n);
    if (s->net_attn.n > NET_LEVELS)
        return fail(ERR_USAGE, "net.attn: at most %d resolutions, not %d", NET_LEVELS, s->net_attn.n);
    if (s->net_filter.n > NET_LEVELS)
        return fail(ERR_USAGE, "net.filter: at most %d taps, not %d", NET_LEVELS, s->net_filter.n);
    *c = (struct net_config){.resolution = resolution,
                             .in_channels = channels,
                             .label_dim = s->net_cond ? classes : 0,
                             .augment_dim = (int)s->net_augment,
                             .width = (int)s->net_width,
                             .nmult = s->net_mult.n,
                             .blocks = (int)s->net_blocks,
                             .nattn = s->net_attn.n,
                             .emb_mult = (int)s->net_emb_mult,
                             .noise_mult = (int)s->net_noise_mult,
                             .sigma_data = sigma_data,
                             .dropout_res = (int)s->net_dropout_res,
                             .fourier = !strcmp(s->net_embedding.s, "fourier"),
                             .fourier_scale = s->net_fourier_scale,
                             .nfilter = s->net_filter.n,
                             .head = (int)s->net_head,
                             .logvar = s->net_logvar,
                             .logvar_channels = (int)s->net_logvar_channels,
                             .clip = s->net_clip};
    snprintf(c->family, sizeof c->family, "%.31s", s->net_family.s);
    for (int i = 0; i < c->nmult; i++) c->mult[i] = (int)s->net_mult.v[i];
    for (int i = 0; i < c->nattn; i++) c->attn[i] = (int)s->net_attn.v[i];
    for (int i = 0; i < c->nfilter; i++) c->filter[i] = (int)s->net_filter.v[i];
    for (int i = 0; i < (int)ARRAY_LEN(coders); i++) {
        if (!strcmp(s->net_encoder.s, coders[i])) c->encoder = i;
        if (!strcmp(s->net_decoder.s, coders[i])) c->decoder = i;
    }
    return ERR_OK;
}

static void ints_set(struct spec_ints *to, const int *v, int n)
{
    to->n = n;
    for (int i = 0; i < n; i++) to->v[i] = v[i];
}

void net_config_to_spec(const struct net_config *c, struct spec *s)
{
    snprintf(s->net_family.s, sizeof s->net_family.s, "%s", c->family);
    ints_set(&s->net_mult, c->mult, c->nmult);
    ints_set(&s->net_attn, c->attn, c->nattn);
    if (c->nfilter) ints_set(&s->net_filter, c->filter, c->nfilter);
    s->net_width = c->width;
    s->net_blocks = c->blocks;
    s->net_emb_mult = c->emb_mult;
    s->net_noise_mult = c->noise_mult;
    s->net_cond = c->label_dim > 0;
    s->net_augment = c->augment_dim;
    s->net_dropout_res = c->dropout_res;
    snprintf(s->net_embedding.s, sizeof s->net_embedding.s, "%s", c->fourier ? "fourier" : "positional");
    if (c->fourier) s->net_fourier_scale = c->fourier_scale;
    snprintf(s->net_encoder.s, sizeof s->net_encoder.s, "%s", coders[c->encoder]);
    snprintf(s->net_decoder.s, sizeof s->net_decoder.s, "%s", coders[c->decoder]);
    if (c->head) s->net_head = c->head;
    s->net_logvar = c->logvar;
    if (c->logvar_channels) s->net_logvar_channels = c->logvar_channels;
    if (!strcmp(c->family, "edm2")) s->net_clip = c->clip;
}

const struct net_preset *net_preset_find(const char *name)
{
    for (const struct net_preset *p = net_presets; p->name; p++)
        if (!strcmp(p->name, name)) return p;
    return NULL;
}

err_t net_build(struct graph *g, const struct net_config *c)
{
    const char *names[ARRAY_LEN(families)];
    for (size_t i = 0; i < ARRAY_LEN(families); i++) {
        if (!strcmp(families[i].name, c->family)) return families[i].build(g, c);
        names[i] = families[i].name;
    }
    const char *near = nearest_name(c->family, names, ARRAY_LEN(names));
    return fail(ERR_USAGE, "unknown network family '%s'%s%s", c->family, near ? "; did you mean " : "",
                near ? near : "");
}

/* nets: which families exist, and the configurations people know by name. */
#include <assert.h>
#include <string.h>

#include "core/nets.h"
#include "core/nets/families.h"
#include "core/spec.h"

static const char *const coders[] = {"standard", "skip", "residual"}; /* by CODER_ */

static const struct net_family families[] = {{"songunet", songunet_build},
                                             {"adm", adm_build},
                                             {"edm2", edm2_build},
                                             {"mlp", mlp_build},
                                             {"convnet", convnet_build}};

/* Karras et al. 2022, Table 7: CIFAR-10, DDPM++. */
#define CIFAR10_DDPMPP_OF(n)                                                                                           \
    .family = "songunet", .resolution = 32, .in_channels = 3, .width = 128, .mult = {2, 2, 2}, .nmult = 3,             \
    .blocks = n, .attn = {16}, .nattn = 1, .emb_mult = 4, .noise_mult = 1, .sigma_data = 0.5
#define CIFAR10_DDPMPP CIFAR10_DDPMPP_OF(4)
/* The same table, NCSN++. EDM draws frequencies of standard deviation 16; consistency models from scratch take 0.02 (iCT). */
#define CIFAR10_NCSNPP_OF(n, freq)                                                                                     \
    .family = "songunet", .resolution = 32, .in_channels = 3, .width = 128, .mult = {2, 2, 2}, .nmult = 3,             \
    .blocks = n, .attn = {16}, .nattn = 1, .emb_mult = 4, .noise_mult = 2, .sigma_data = 0.5, .fourier = true,         \
    .fourier_scale = freq, .encoder = CODER_RESIDUAL, .filter = {1, 3, 3, 1}, .nfilter = 4
#define CIFAR10_NCSNPP CIFAR10_NCSNPP_OF(4, 16)
/* Karras et al. 2022, Table 7: ImageNet-64, ADM. */
#define IMAGENET64_ADM                                                                                                 \
    .family = "adm", .resolution = 64, .in_channels = 3, .width = 192, .mult = {1, 2, 3, 4}, .nmult = 4, .blocks = 3,  \
    .attn = {32, 16, 8}, .nattn = 3, .emb_mult = 4, .noise_mult = 1, .sigma_data = 0.5, .head = 64

/* Karras et al. 2024, ImageNet-64; S to XL are what ECT tunes, with the uncertainty head left out (net.logvar). Labels: 1000 classes. */
#define EDM2_IMG64(channels)                                                                                           \
    .family = "edm2", .resolution = 64, .in_channels = 3, .label_dim = 1000, .width = channels, .mult = {1, 2, 3, 4},  \
    .nmult = 4, .blocks = 3, .attn = {16, 8}, .nattn = 2, .sigma_data = 0.5, .head = 64, .logvar_channels = 128,       \
    .clip = 256

const struct net_preset net_presets[] = {
    {"cifar10-ddpmpp", "EDM's CIFAR-10 network, unconditional: the one ECT tunes", {CIFAR10_DDPMPP}},
    {"cifar10-ddpmpp-cond", "the same, class-conditional", {CIFAR10_DDPMPP, .label_dim = 10}},
    {"cifar10-ddpmpp-aug",
     "the same, with augmentation labels, as EDM pretrains it",
     {CIFAR10_DDPMPP, .augment_dim = 9}},
    {"cifar10-ncsnpp", "EDM's other CIFAR-10 network: Fourier features, residual encoder", {CIFAR10_NCSNPP}},
    {"cifar10-ncsnpp-cond", "the same, class-conditional", {CIFAR10_NCSNPP, .label_dim = 10}},
    {"cifar10-ncsnpp-aug",
     "the same, with augmentation labels, as EDM pretrains it",
     {CIFAR10_NCSNPP, .augment_dim = 9}},
    {"cifar10-ddpmpp-deep", "8 blocks at each resolution instead of 4", {CIFAR10_DDPMPP_OF(8)}},
    {"cifar10-ncsnpp-deep",
     "the same of NCSN++: iCT-deep's, with its Fourier scale of 0.02",
     {CIFAR10_NCSNPP_OF(8, 0.02)}},
    {"imagenet64-adm", "ADM for ImageNet-64, class-conditional", {IMAGENET64_ADM, .label_dim = 1000}},
    {"edm2-img64-xs", "EDM2 for ImageNet-64, class-conditional, 125 M parameters", {EDM2_IMG64(128)}},
    {"edm2-img64-s", "280 M parameters", {EDM2_IMG64(192)}},
    {"edm2-img64-m", "498 M parameters", {EDM2_IMG64(256)}},
    {"edm2-img64-l", "777 M parameters", {EDM2_IMG64(320)}},
    {"edm2-img64-xl", "1119 M parameters", {EDM2_IMG64(384)}},
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
                             .sigma_min = s->sigma_min,
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

bool spec_preset(struct spec *s, const char *name)
{
    const struct net_preset *p = net_preset_find(name);
    struct spec from;
    if (!p) return false;
    spec_defaults(&from);
    net_config_to_spec(&p->config, &from);
    for (int i = 0; i < spec_nfields; i++) {
        const struct spec_field *f = &spec_fields[i];
        struct text value = {0};
        if (strcmp(f->key, "net") && strncmp(f->key, "net.", 4)) continue;
        spec_get(&from, f, &value);
        err_t err = spec_set(s, f->key, text_str(&value));
        assert(!err);
        (void)err;
        text_done(&value);
    }
    return true;
}

const char *spec_preset_name(int i)
{
    return net_presets[i].name;
}

err_t net_build(struct graph *g, const struct net_config *c)
{
    const char *names[ARRAY_LEN(families)];
    if (c->logvar && strcmp(c->family, "edm2"))
        return fail(ERR_USAGE, "net.logvar: only EDM2 has an uncertainty head, not %s", c->family);
    for (size_t i = 0; i < ARRAY_LEN(families); i++) {
        if (!strcmp(families[i].name, c->family)) return families[i].build(g, c);
        names[i] = families[i].name;
    }
    const char *near = nearest_name(c->family, names, ARRAY_LEN(names));
    return fail(ERR_USAGE, "unknown network family '%s'%s%s", c->family, near ? "; did you mean " : "",
                near ? near : "");
}

/* nets: which families exist, and the configurations people know by name. */
#include <string.h>

#include "core/nets.h"
#include "core/nets/families.h"

static const struct net_family families[] = {{"songunet", songunet_build}};

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

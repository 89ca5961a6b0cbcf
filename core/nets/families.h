/* families: the builders that core/nets/nets.c lists. One line a family. */
#ifndef CORE_NETS_FAMILIES_H
#define CORE_NETS_FAMILIES_H

#include "core/nets.h"

err_t songunet_build(struct graph *g, const struct net_config *c) MUST_USE;

#endif

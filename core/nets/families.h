/* families: the builders that core/nets/nets.c lists. One line a family. */
#ifndef CORE_NETS_FAMILIES_H
#define CORE_NETS_FAMILIES_H

#include "core/nets.h"
#include "core/ops.h"

err_t adm_build(struct graph *g, const struct net_config *c) MUST_USE;
err_t edm2_build(struct graph *g, const struct net_config *c) MUST_USE;
err_t songunet_build(struct graph *g, const struct net_config *c) MUST_USE;
err_t convnet_build(struct graph *g, const struct net_config *c) MUST_USE;
err_t mlp_build(struct graph *g, const struct net_config *c) MUST_USE;

/* The preconditioning that c->precond asks for: x_in for the first layer, c_noise for the noise features (EDM: ln(sigma) / 4; flow: the
 * time itself), and D of the raw output F. */
struct precond net_precond_in(struct graph *g, const struct net_config *c, struct node *x, struct node *sigma);
struct node *net_precond_out(struct graph *g, const struct net_config *c, struct node *x, struct node *f,
                             struct precond pc);

#endif

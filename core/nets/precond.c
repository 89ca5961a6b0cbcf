/* What a network is to its target: EDM's denoiser at a noise level, or a velocity at a time. */
#include "core/nets/families.h"

struct precond net_precond_in(struct graph *g, const struct net_config *c, struct node *x, struct node *sigma)
{
    if (c->precond == PRECOND_FLOW) return (struct precond){.x_in = x, .c_noise = sigma};
    return op_precond_in(g, x, sigma, c->sigma_data);
}

struct node *net_precond_out(struct graph *g, const struct net_config *c, struct node *x, struct node *f,
                             struct precond pc)
{
    return c->precond == PRECOND_FLOW ? f : op_precond_out(g, x, f, pc);
}

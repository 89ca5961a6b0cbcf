/* What a network is to its target: EDM's denoiser at a noise level, or a velocity at a time. */
#include <string.h>

#include "core/nets/families.h"

struct precond net_precond_in(struct graph *g, const struct net_config *c, struct node *x, struct node *sigma)
{
    if (c->precond == PRECOND_FLOW) return (struct precond){.x_in = x, .c_noise = sigma};
    bool never = c->sigma_min == 0 && !strcmp(c->family, "edm2"); /* the published EDM2 network has no other form */
    if (never) return op_precond_plain(g, x, sigma, c->sigma_data);
    return op_precond_in(g, x, sigma, c->sigma_data, c->sigma_min);
}

struct node *net_precond_out(struct graph *g, const struct net_config *c, struct node *x, struct node *f,
                             struct precond pc)
{
    return c->precond == PRECOND_FLOW ? f : op_precond_out(g, x, f, pc);
}

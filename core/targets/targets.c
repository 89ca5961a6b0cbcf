#include "core/target.h"

#include <math.h>
#include <string.h>

extern const struct target target_edm, target_ect, target_flow;

const struct target *const targets[] = {&target_edm, &target_ect, &target_flow, NULL};

const struct target *target_find(const char *name)
{
    for (int i = 0; targets[i]; i++) {
        if (!strcmp(targets[i]->name, name)) return targets[i];
    }
    return NULL;
}

void loss_distance(const struct loss_opts *o, double s, double *d, double *g)
{
    double base = s + o->c * o->c;
    *d = *g = 0;
    if (base == 0) return;
    if (o->huber) {
        *d = s / (sqrt(base) + o->c); /* = sqrt(base) - c without cancellation */
        *g = 1 / sqrt(base);
    } else {
        *d = s / pow(base, o->p);
        *g = 2 / pow(base, o->p);
    }
}

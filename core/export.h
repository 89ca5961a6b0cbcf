/* export: one set of weights as a file that the published modules take: safetensors, tensors under the names of their state_dict (buffers
 * included), the keyword arguments of the module as JSON in the metadata key "config", the run's settings in "spec". */
#ifndef CORE_EXPORT_H
#define CORE_EXPORT_H

#include "core/graph.h"
#include "core/nets.h"
#include "core/spec.h"

struct export_about {
    const struct net_config *net;
    const struct spec *spec;
    const char *run, *weights;
    int64_t step;
};
/* Keyword arguments by which the published code makes this network, as JSON; those of our own networks under our names. */
void export_config(const struct net_config *c, struct text *out);
err_t export_weights(const char *path, const struct graph *g, const struct params *p,
                     const struct export_about *about) MUST_USE;

#endif

/* graph_params: what the compiler sees of a parameter set besides core/graph.h. */
#ifndef CORE_GRAPH_PARAMS_H
#define CORE_GRAPH_PARAMS_H

#include "core/graph.h"

size_t graph_buffer_floats(const struct graph *g);
uint64_t params_uid(const struct params *p); /* never reused, unlike an address */
const float *params_value(const struct params *p, int i);
/* The convolution weight `param` as the library wants it; packed again only if the values changed since. */
const void *params_packed(struct params *p, int param, struct conv *conv, const struct conv_desc *desc, bool backward);

#endif

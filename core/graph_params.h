/* graph_params: what the compiler sees of a parameter set besides core/graph.h. */
#ifndef CORE_GRAPH_PARAMS_H
#define CORE_GRAPH_PARAMS_H

#include "core/graph.h"

struct node;
size_t graph_buffer_floats(const struct graph *g);
uint64_t params_uid(const struct params *p); /* never reused, unlike an address */
void params_ready(struct params *p);         /* runs the weight program if the values changed since */
const float *params_value(const struct params *p, const struct node *n); /* of a parameter, buffer or weight */
/* The convolution weight n as the library wants it: memory for it, and the value, packed again only if the values changed since. */
err_t params_reserve(struct params *p, const struct node *n, struct conv *conv, const struct conv_desc *desc,
                     bool backward) MUST_USE;
const void *params_packed(struct params *p, const struct node *n, struct conv *conv, const struct conv_desc *desc,
                          bool backward);

#endif

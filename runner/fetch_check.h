/* fetch_check: is a file the network that a name of fetch.h's table stands for? Looked at before it gets that name. */
#ifndef RUNNER_FETCH_CHECK_H
#define RUNNER_FETCH_CHECK_H

#include "runner/fetch.h"

/* ERR_FORMAT says what is missing, or which shape is another. */
err_t fetch_check(const struct fetch_row *row, const char *path) MUST_USE;

#endif

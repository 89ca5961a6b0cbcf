/* eval_add: evaluations of a run that another tool made, from a JSON file: an object or a list of objects {"metric", "value", "nfe",
 * "samples" and perhaps "sampler" ("ect"), "weights" ("raw"), "seed" (0), "step" (the last)}. All of a file or nothing. */
#ifndef RUNNER_EVAL_ADD_H
#define RUNNER_EVAL_ADD_H

#include "runner/runner.h"

/* evaluator: what the tool is, in one line; part of the identity. ERR_FORMAT names file and entry. */
err_t eval_add(struct ledger *l, const char *run_id, const char *evaluator, const char *file, int *added) MUST_USE;

#endif

/* worker: one run in one process. It holds the run's lock for its whole life, claims the run, rebuilds its cell from the script text in
 * the ledger (found by configuration hash), trains, evaluates, draws pictures. What it says on its pipe, one line each:
 *
 *   phase train|eval|pictures
 *   progress STEP ITERS IMAGES_PER_S LOSS
 *   eval DONE TOTAL
 *   error TEXT
 *
 * It stops at the next step, with a checkpoint, on SIGTERM or SIGINT, or when the process that started it is gone. */
#ifndef RUNNER_WORKER_H
#define RUNNER_WORKER_H

#include "core/base.h"

struct worker_opts {
    const char *ledger, *run, *device;
    int64_t sweep; /* a sweep row whose script declares the run */
    int threads;
    int pipe;                            /* -1: none */
    int pid_above;                       /* of the scheduler; 0: not watched */
    const char *git_revision, *git_diff; /* of the script's directory; "" */
};
err_t worker_run(const struct worker_opts *o) MUST_USE;

#endif

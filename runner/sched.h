/* sched: runs the jobs of a plan, parents first, each in a process of its own (the program itself, as `ect worker`). The scheduler never
 * trains: it starts, listens, reaps. A worker that a signal killed is started again, at most twice, and resumes from its checkpoint.
 *
 * First SIGINT or SIGTERM: workers are asked to stop with a checkpoint; second: they are killed. */
#ifndef RUNNER_SCHED_H
#define RUNNER_SCHED_H

#include "runner/plan.h"

struct sched_opts {
    int jobs;           /* workers at once; 0: one per core */
    const char *device; /* NULL: as each run's setting says */
    bool fail_fast, quiet;
};
struct sched_result {
    bool interrupted;
    int started; /* worker processes */
};
err_t sched_run(struct plan *p, const struct sched_opts *o, struct sched_result *r) MUST_USE;

#endif

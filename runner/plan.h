/* plan: what a script asks for, as jobs. A job is one run (a configuration and a replicate); equal cells of several sweeps are one job.
 * What is left to do is decided by queries alone: the state of the run's row, the lock that says whether somebody holds it, and
 * the evaluations that the ledger lacks.
 *
 *   WAIT ----> ACTIVE ----> FINISHED | FAILED | DIVERGED | INTERRUPTED
 *     |  \---> ELSEWHERE (another process holds the run) -> any of the above
 *     \------> BLOCKED (its parent failed or diverged)
 */
#ifndef RUNNER_PLAN_H
#define RUNNER_PLAN_H

#include "core/train.h"
#include "db/query.h"
#include "runner/evals.h"
#include "runner/lab.h"

enum job_state {
    JOB_WAIT,
    JOB_ACTIVE,
    JOB_ELSEWHERE,
    JOB_FINISHED,
    JOB_FAILED,
    JOB_DIVERGED,
    JOB_INTERRUPTED,
    JOB_BLOCKED
};
enum job_need { NEED_NOTHING, NEED_EVALS, NEED_TRAINING };

struct job {
    int cell;      /* in the script: the first with this configuration */
    int replicate; /* 1.. */
    int parent;    /* job, or -1 */
    char id[RUN_ID_TEXT];
    enum job_state state;
    enum job_need need;
    int evals_missing, evals_lost; /* lost: the checkpoint they need was not kept */
    int threads;                   /* of the first attempt; 0: none yet */
    int64_t sweep;                 /* a sweep row that holds its script; 0 in a dry run without a ledger */
    int64_t step, iters;
    int retries;
    char *reason; /* why it failed, diverged or is blocked */
};

struct plan {
    struct lab *lab;
    struct script *script;
    struct job *jobs; /* parents before children */
    int njobs, cap;
    struct eval_list *evals; /* [ncells]: what each cell's runs should have */
    int ncells;
    bool look_only; /* a dry run: nothing is written, not even that a run's process is gone */
    char *dir;      /* the script's directory, for git */
};

/* Opens the script (text NULL: reads path) and lists its jobs. Nothing is written. */
err_t plan_open(struct plan *p, struct lab *lab, const char *path, const char *const *sets, int nsets) MUST_USE;
err_t plan_open_recipe(struct plan *p, struct lab *lab, const char *recipe, const char *const *sets,
                       int nsets) MUST_USE;
void plan_close(struct plan *p);
/* Writes script, sweeps, configurations, runs and trials, in one transaction. */
err_t plan_write(struct plan *p, const char *path, const char *const *sets, int nsets) MUST_USE;
/* Reads what is there: fills state, need, threads of every job. */
err_t plan_read(struct plan *p) MUST_USE;
/* One job's row again, after somebody worked on it. */
err_t plan_read_job(struct plan *p, int j) MUST_USE;
const struct script_cell *plan_cell(const struct plan *p, const struct job *j);
int plan_count(const struct plan *p, enum job_state s);

#endif

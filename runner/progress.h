/* progress: what is being done, on standard error. On a terminal one line an active run and a summary line, redrawn in place; elsewhere
 * a line when a run begins and ends, and one every ten seconds. */
#ifndef RUNNER_PROGRESS_H
#define RUNNER_PROGRESS_H

#include "core/base.h"

struct progress_run { /* one active run, as its worker told */
    char label[64];   /* "mapping/c=0 #2" */
    char id[17];
    char phase[16]; /* "train", "eval", "pictures", "start" */
    int64_t step, iters, begin_step;
    double images_per_s, loss;
    int eval_done, eval_total;
    int64_t began_ms, told_ms; /* told_ms: of the last plain line */
};
struct progress {
    bool live, quiet, color;
    int lines;          /* drawn last time */
    double first_share; /* of the work, when the first picture was drawn; -1: none yet */
    int64_t began_ms, drawn_ms;
};
void progress_init(struct progress *p, bool quiet);
/* Takes one line of a worker's pipe; false if it is something else. */
bool progress_take(struct progress_run *r, const char *line);
struct progress_total {
    int done, bad, jobs;
    double share; /* of all work that is done, 0..1 */
    bool stopping;
};
/* runs: the active ones, n of them. */
void progress_draw(struct progress *p, struct progress_run *const *runs, int n, const struct progress_total *t);
void progress_say(struct progress *p, const char *fmt, ...) PRINTF(2, 3); /* a line that stays */
void progress_end(struct progress *p);

#endif

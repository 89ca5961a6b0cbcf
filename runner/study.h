/* study: what `ect run` and `ect train` have in common: plan, preview, schedule, and the summary with its exit code. */
#ifndef RUNNER_STUDY_H
#define RUNNER_STUDY_H

#include "runner/plan.h"
#include "runner/runner.h"

#define STUDY_OPTS                                                                                                     \
    {"dry-run", 'n', NULL, "show cells, states, predicted FLOPs, time and disk; run nothing"},                         \
        {"jobs", 'j', "N", "runs at once (default: one per core)"}, OPT_SET, OPT_LEDGER,                               \
        {"device", 0, "NAME", "cpu, cpu-portable, cuda:N (default: the runs' setting)"},                               \
        {"fail-fast", 0, NULL, "stop at the first run that fails"}, {"quiet", 'q', NULL, "no progress"}, OPT_JSON

/* script or recipe: the other is NULL. */
err_t study_run(struct args *a, const char *script, const char *recipe) MUST_USE;
/* The preview: one row a cell. */
err_t preview_print(struct plan *p, int jobs, bool json) MUST_USE;

#endif

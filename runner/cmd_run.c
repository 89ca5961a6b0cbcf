/* run: everything a script asks for that is missing or failed. */
#include "runner/study.h"

static err_t run_script(struct args *a)
{
    return study_run(a, a->pos[0], NULL);
}

static const struct opt run_opts[] = {STUDY_OPTS, OPT_END};
const struct command cmd_run = {
    .name = "run",
    .args = "SCRIPT",
    .help = "do what a script asks for and the ledger does not have",
    .min_pos = 1,
    .max_pos = 1,
    .opts = run_opts,
    .more = "Runs that are done are left alone; a changed training setting trains only its cell; a changed evaluation "
            "setting\n"
            "only evaluates. Ctrl-C stops with checkpoints (exit 75) and the same command goes on.\n"
            "Exit 3: some runs failed or diverged; the others are done.",
    .run = run_script};

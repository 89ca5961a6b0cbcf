/* train: one run of a recipe, without a script. */
#include "runner/study.h"

static err_t train_recipe(struct args *a)
{
    return study_run(a, NULL, a->pos[0]);
}

static const struct opt train_opts[] = {STUDY_OPTS, OPT_END};
const struct command cmd_train = {.name = "train",
                                  .args = "RECIPE",
                                  .help = "one run of a recipe, changed by --set",
                                  .min_pos = 1,
                                  .max_pos = 1,
                                  .opts = train_opts,
                                  .more = "`ect help recipes` lists recipes, `ect help settings` what --set takes.",
                                  .run = train_recipe};

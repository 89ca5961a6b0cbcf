/* subject: a trained run, opened to be sampled or evaluated outside any script. */
#ifndef RUNNER_SUBJECT_H
#define RUNNER_SUBJECT_H

#include "runner/evals.h"
#include "runner/runner.h"

struct subject {
    struct lab lab;
    struct ledger_run row;
    struct spec spec; /* TRAIN settings of the run; EVAL settings as recorded with it, to be overridden */
    struct dataset *data;
    const struct kernels *kernels;
    struct kdev *dev;
    struct sampling sampling;
    char *dir, *ckpt;
};
/* name: the beginning of a run's id. The device is --device or the run's; threads all cores. */
err_t subject_open(struct subject *s, struct args *a, const char *name, enum ledger_mode mode) MUST_USE;
void subject_close(struct subject *s);
/* Applies --nfe, --sampler, --ema, --samples, --metrics, --at, --seed, --mid-t, --labels and --set eval.*=... where given. */
err_t subject_options(struct subject *s, const struct args *a) MUST_USE;

#endif

/* init: starting weights from any file of tensors (core/io/tensors.h): network pickles of EDM, EDM2 and ECT, training states, state_dicts,
 * checkpoints of our own. Tensors are found by the network's parameter names behind a prefix ("ema/", "net/", "module."), with or without
 * the "model." or "unet." that stands before all of them.
 *
 * What the file lacks keeps its drawn value, what the network lacks is dropped (ECT drops EDM's model.map_augment.weight): both are
 * reported, neither is an error. A tensor of another shape is one, and so is a file without any tensor of the network. */
#ifndef CORE_INIT_H
#define CORE_INIT_H

#include "core/graph.h"

struct init_report {
    char prefix[256]; /* of the names that were taken */
    const char *kind; /* of file: "pickle", "torch zip" ... */
    int loaded, missing, dropped;
    struct text missing_names, dropped_names; /* separated by ", " */
};
/* weights: a prefix ("ema", "net", "ema/emas/1"), for checkpoints of ours "raw" or an EMA's name; "auto": the one set of weights that fits
 * the network best, "ema" before others, "raw" of our own. ERR_USAGE lists the choices where several fit alike, ERR_NOT_FOUND those there are.
 * The report is filled also on failure. p = NULL: names and shapes are looked at, no weights are read. */
err_t init_load(const char *path, const char *weights, struct params *p, const struct graph *g,
                struct init_report *r) MUST_USE;
void init_report_done(struct init_report *r);
/* One line for the log. */
void init_report_text(const struct init_report *r, struct text *out);

#endif

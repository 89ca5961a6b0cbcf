/* labels: which class label a sample is given. A policy is a word of eval.labels and part of an evaluation's identity;
 * the label of sample i depends on (seed block, i) only.
 *
 *   data      that of a data set image drawn at random: the classes' own frequencies
 *   uniform   every class equally likely
 *   balanced  sample i has class i mod n
 *   class:K   always K, from 0
 *   none      no label: rows of zeros, the unconditional label of a conditional network */
#ifndef CORE_LABELS_H
#define CORE_LABELS_H

#include "core/io/dataset.h"

enum label_kind { LABELS_DATA, LABELS_UNIFORM, LABELS_BALANCED, LABELS_CLASS, LABELS_NONE };
struct label_policy {
    enum label_kind kind;
    int class;
};
/* ERR_USAGE names the policies and the nearest one. */
err_t labels_parse(const char *text, struct label_policy *p) MUST_USE;
/* Has the data set what the policy draws from? */
err_t labels_check(const struct label_policy *p, const struct dataset *d) MUST_USE;
/* As in an evaluator's identity. */
void labels_text(const struct label_policy *p, struct text *out);
/* The class of a sample of seed block `seed`; -1 without one. */
int labels_class(const struct label_policy *p, const struct dataset *d, uint64_t seed, uint32_t sample);
/* One-hot rows [n, nclasses] of samples index[0..n) of seed block `seed`, into zeros or not. */
void labels_draw(const struct label_policy *p, const struct dataset *d, uint64_t seed, const uint32_t *index, int n,
                 float *rows);

#endif

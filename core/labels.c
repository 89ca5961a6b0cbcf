/* Labels of samples: the draw of (seed block, sample), like the latents. */
#include "core/labels.h"

#include <string.h>

#include "core/rng.h"

static const char *const words[] = {"data", "uniform", "balanced", "class:0", "none"}; /* in the order of label_kind */

err_t labels_parse(const char *text, struct label_policy *p)
{
    int64_t v;
    for (int i = 0; i < (int)ARRAY_LEN(words); i++)
        if (i != LABELS_CLASS && !strcmp(text, words[i])) {
            *p = (struct label_policy){.kind = (enum label_kind)i};
            return ERR_OK;
        }
    if (!strncmp(text, "class:", 6) && int_parse(text + 6, &v) && v >= 0 && v < INT32_MAX) {
        *p = (struct label_policy){.kind = LABELS_CLASS, .class = (int)v};
        return ERR_OK;
    }
    const char *near = nearest_name(text, words, ARRAY_LEN(words));
    return fail(ERR_USAGE, "eval.labels = %s: must be data, uniform, balanced, none or class:K with K from 0%s%s%s",
                text, near ? "; did you mean '" : "", near ? near : "", near ? "'?" : "");
}

err_t labels_check(const struct label_policy *p, const struct dataset *d)
{
    if (p->kind == LABELS_NONE) return ERR_OK;
    if (!d->nclasses) return fail(ERR_USAGE, "data set %s has no labels to draw", d->name);
    if (p->kind == LABELS_CLASS && p->class >= d->nclasses)
        return fail(ERR_USAGE, "eval.labels = class:%d: the classes of %s are 0..%d", p->class, d->name,
                    d->nclasses - 1);
    return ERR_OK;
}

void labels_text(const struct label_policy *p, struct text *out)
{
    if (p->kind == LABELS_DATA) text_add(out, "iid from the data set");
    else if (p->kind == LABELS_CLASS) text_addf(out, "class:%d", p->class);
    else text_add(out, words[p->kind]);
}

/* u in (0, 1) -> 0..n-1 */
static int pick(double u, int n)
{
    int at = (int)(u * n);
    return at < n ? at : n - 1;
}

int labels_class(const struct label_policy *p, const struct dataset *d, uint64_t seed, uint32_t sample)
{
    double u = rng_uniform(&(struct rng){.seed = seed, .purpose = RNG_LABEL}, sample, 0);
    switch (p->kind) {
    case LABELS_DATA: return d->labels[pick(u, d->n)];
    case LABELS_UNIFORM: return pick(u, d->nclasses);
    case LABELS_BALANCED: return (int)(sample % (uint32_t)d->nclasses);
    case LABELS_CLASS: return p->class;
    case LABELS_NONE: break;
    }
    return -1;
}

void labels_draw(const struct label_policy *p, const struct dataset *d, uint64_t seed, const uint32_t *index, int n,
                 float *rows)
{
    size_t classes = (size_t)d->nclasses;
    memset(rows, 0, (size_t)n * classes * sizeof *rows);
    for (int i = 0; i < n; i++) {
        int label = labels_class(p, d, seed, index[i]);
        if (label >= 0) rows[(size_t)i * classes + (size_t)label] = 1;
    }
}

#include "core/metrics/metric.h"

#include <math.h>
#include <string.h>

#include "core/metrics/features.h"
#include "core/metrics/kernel.h"
#include "core/metrics/prdc.h"

/* The subsets of a kernel distance are part of the metric, so they have a seed of their own. */
enum { SUBSET_SEED = 0 };

static const struct {
    const char *prefix;
    enum measure measure;
} measures[] = {{"fd_", MEASURE_FRECHET},       {"kd_", MEASURE_KERNEL},     {"precision_", MEASURE_PRECISION},
                {"classes_", MEASURE_CLASSES},  {"recall_", MEASURE_RECALL}, {"density_", MEASURE_DENSITY},
                {"coverage_", MEASURE_COVERAGE}};

static const struct {
    const char *name, *canonical, *means;
    bool biased;
} named[] = {{"fid", "fid:pytorch", "fd_inception", false},
             {"fid:pytorch", "fid:pytorch", "fd_inception", false},
             {"fid:nvidia", "fid:nvidia", "fd_inception-tf", true},
             {"kid", "kid:pytorch", "kd_inception", false},
             {"kid:pytorch", "kid:pytorch", "kd_inception", false}};

static const char *const examples[] = {"fd_pixel",         "fd_random",        "fd_digits",
                                       "classes_digits",   "fd_dinov2",        "fid",
                                       "fid:pytorch",      "fid:nvidia",       "kid",
                                       "kd_dinov2",        "kd_random",        "kd_pixel",
                                       "precision_dinov2", "recall_dinov2",    "density_dinov2",
                                       "coverage_dinov2",  "precision_random", "recall_random",
                                       "density_random",   "coverage_random"};

/* Takes ":n" and ":kK" off the end of name. */
static bool endings(char *name, struct metric *m)
{
    char *colon;
    while ((colon = strrchr(name, ':')) != NULL) {
        int64_t k;
        if (!strcmp(colon, ":n")) m->biased = true;
        else if (colon[1] == 'k' && int_parse(colon + 2, &k) && k >= 1 && k <= 1000) m->neighbours = (int)k;
        else break; /* fid:pytorch */
        *colon = 0;
    }
    return name[0] != 0;
}

static err_t unknown(const char *name)
{
    static const char *const bare[] = {"precision", "recall", "density", "coverage", "kd", "fd"};
    for (size_t i = 0; i < ARRAY_LEN(bare); i++)
        if (!strcmp(name, bare[i]))
            return fail(ERR_USAGE, "metric '%s' is measured in a feature space: %s_dinov2, %s_random, %s_pixel", name,
                        name, name, name);
    const char *near = nearest_name(name, examples, ARRAY_LEN(examples));
    return fail(ERR_USAGE,
                "unknown metric %s%s%s (known: fid, fd_SPACE, kd_SPACE, precision_SPACE ... with SPACE = pixel, "
                "random, digits, dinov2; classes_digits; of points: energy, sw2)",
                name, near ? "; did you mean " : "", near ? near : "");
}

err_t metric_parse(const char *name, struct metric *m)
{
    char base[METRIC_NAME], of[METRIC_NAME];
    *m = (struct metric){.neighbours = METRIC_NEIGHBOURS};
    if (strlen(name) >= sizeof base) return unknown(name);
    strcpy(base, name);
    if (!endings(base, m)) return unknown(name);
    const char *ending = name + strlen(base);
    strcpy(of, base);
    for (size_t i = 0; i < ARRAY_LEN(named); i++)
        if (!strcmp(named[i].name, base)) {
            strcpy(of, named[i].means);
            strcpy(base, named[i].canonical);
            m->biased = m->biased || named[i].biased;
            break;
        }
    size_t prefix = 0;
    for (size_t i = 0; i < ARRAY_LEN(measures) && !prefix; i++)
        if (!strncmp(of, measures[i].prefix, strlen(measures[i].prefix))) {
            m->measure = measures[i].measure;
            prefix = strlen(measures[i].prefix);
        }
    if (!prefix) return unknown(name);
    strcpy(m->space, of + prefix);
    bool classes = m->measure == MEASURE_CLASSES;
    if (classes && strlen(m->space) + strlen("-classes") < sizeof m->space) strcat(m->space, "-classes");
    else if (classes || strstr(m->space, "-classes")) return unknown(name);
    if (!strcmp(m->space, "dinov2")) strcpy(m->space, "dinov2-vitl14");
    if (!extractor_exists(m->space) || strlen(base) + strlen(ending) >= sizeof m->name) return unknown(name);
    bool ball = m->measure >= MEASURE_PRECISION, frechet = m->measure == MEASURE_FRECHET;
    if ((strstr(ending, ":k") && !ball) || (strstr(ending, ":n") && !frechet))
        return fail(ERR_USAGE, "metric %s: ':n' is for Frechet distances, ':kK' for precision and its companions",
                    name);
    strcpy(m->name, base);
    strcat(m->name, ending);
    return ERR_OK;
}

bool metric_needs_rows(const struct metric *m)
{
    return m->measure != MEASURE_FRECHET && m->measure != MEASURE_CLASSES;
}

void metric_identity(const struct metric *m, const char *extractor_sha, struct text *canon)
{
    text_addf(canon, "metric=%s\nextractor.sha=%s\nresize=%s\n", m->name, extractor_sha, extractor_resize(m->space));
    if (m->measure == MEASURE_FRECHET) text_addf(canon, "covariance=%s\n", m->biased ? "n" : "n-1");
    if (m->measure == MEASURE_KERNEL)
        text_addf(canon, "kernel=(x.y/d+1)^3\nsubsets=%d of %d, seed %d\n", METRIC_SUBSETS, METRIC_SUBSET, SUBSET_SEED);
    if (m->measure == MEASURE_CLASSES) text_add(canon, "distance=sum |p - q| / 2\n");
    if (m->measure >= MEASURE_PRECISION) text_addf(canon, "neighbours=%d\n", m->neighbours);
    text_add(canon, "uint8=trunc(x*127.5+128)\n");
}

/* ---- features ------------------------------------------------------------------------------------------------------------ */

err_t feature_set_init(struct feature_set *s, int d, bool keep)
{
    *s = (struct feature_set){.keep = keep};
    return moments_init(&s->m, d);
}

void feature_set_add(struct feature_set *s, const float *x, int64_t n)
{
    size_t d = (size_t)s->m.d;
    moments_add(&s->m, x, n);
    if (s->keep && s->n + n > s->cap) {
        int64_t cap = s->n + n > 2 * s->cap ? s->n + n : 2 * s->cap;
        s->rows = mem_grow(s->rows, (size_t)s->cap * d * sizeof *x, (size_t)cap * d * sizeof *x);
        s->cap = cap;
    }
    if (s->keep) memcpy(s->rows + (size_t)s->n * d, x, (size_t)n * d * sizeof *x);
    s->n += n;
}

void feature_set_done(struct feature_set *s)
{
    if (s->m.mean) moments_done(&s->m);
    mem_free(s->rows);
    *s = (struct feature_set){.n = 0};
}

static err_t measure_balls(const struct metric *m, const struct feature_set *ref, const struct feature_set *got,
                           double *out)
{
    struct prdc v;
    TRY(prdc_of(ref->rows, (int)ref->n, got->rows, (int)got->n, ref->m.d, m->neighbours, &v, NULL, NULL));
    *out = m->measure == MEASURE_PRECISION ? v.precision
           : m->measure == MEASURE_RECALL  ? v.recall
           : m->measure == MEASURE_DENSITY ? v.density
                                           : v.coverage;
    return ERR_OK;
}

/* Features are 1 at the class: their means are the histograms. */
static err_t measure_classes(const struct feature_set *ref, const struct feature_set *got, double *out)
{
    double sum = 0;
    if (ref->m.n < 1 || got->m.n < 1) return fail(ERR_FAILED, "histograms of classes need samples");
    for (int i = 0; i < ref->m.d; i++) sum += fabs(ref->m.mean[i] - got->m.mean[i]);
    *out = sum / 2;
    return ERR_OK;
}

err_t metric_of(const struct metric *m, const struct feature_set *ref, const struct feature_set *got, double *out)
{
    if (m->measure == MEASURE_FRECHET) return frechet_of(&got->m, &ref->m, m->biased, out);
    if (m->measure == MEASURE_CLASSES) return measure_classes(ref, got, out);
    if (ref->n > INT32_MAX || got->n > INT32_MAX) return fail(ERR_USAGE, "%s: too many samples", m->name);
    if (m->measure == MEASURE_KERNEL)
        return kernel_distance(ref->rows, (int)ref->n, got->rows, (int)got->n, ref->m.d, METRIC_SUBSETS, METRIC_SUBSET,
                               SUBSET_SEED, out, NULL);
    return measure_balls(m, ref, got, out);
}

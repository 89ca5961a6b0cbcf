/* Distances come a block of rows at a time from one matrix product, |a|^2 + |b|^2 - 2 a.b in double; nothing of size n m is kept. Features are
 * first moved by the mean of the real ones, so that their common part costs no digits. */
#include "core/metrics/prdc.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/linalg.h"

enum { BLOCK = 256 };

struct set {
    int n, d;
    double *x, *square; /* [n, d], [n] */
};

static err_t set_init(struct set *s, const float *x, int n, int d, const double *mean)
{
    *s = (struct set){.n = n, .d = d};
    s->x = mem_array((size_t)n * (size_t)d, sizeof *s->x);
    s->square = mem_array((size_t)n, sizeof *s->square);
    for (int i = 0; i < n; i++) {
        for (int k = 0; k < d; k++) {
            size_t at = (size_t)i * (size_t)d + (size_t)k;
            s->x[at] = x[at] - mean[k];
            s->square[i] += s->x[at] * s->x[at];
        }
        if (!isfinite(s->square[i]))
            return fail(ERR_FAILED, "precision and recall: features of sample %d are not finite", i);
    }
    return ERR_OK;
}

static void set_done(struct set *s)
{
    mem_free(s->x);
    mem_free(s->square);
}

/* out[rows, b->n] = distances of rows from.. of a to all of b. */
static void distances(const struct set *a, int from, int rows, const struct set *b, double *out)
{
    linalg_dgemm(false, true, rows, b->n, a->d, -2, a->x + (size_t)from * (size_t)a->d, a->d, b->x, b->d, 0, out, b->n);
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < b->n; j++) {
            double *v = out + (size_t)i * (size_t)b->n + (size_t)j, sum = *v + a->square[from + i] + b->square[j];
            *v = sum > 0 ? sqrt(sum) : 0;
        }
}

/* The k-th smallest of n values, of which number `skip` does not count. */
static double kth(const double *v, int n, int k, int skip, double *least)
{
    int have = 0;
    for (int j = 0; j < n; j++) {
        if (j == skip || (have == k && v[j] >= least[k - 1])) continue;
        int at = have < k ? have++ : k - 1;
        for (; at > 0 && least[at - 1] > v[j]; at--) least[at] = least[at - 1];
        least[at] = v[j];
    }
    return least[k - 1];
}

static void radii_of(const struct set *s, int k, double *block, double *out)
{
    double *least = mem_array((size_t)k, sizeof *least);
    for (int at = 0; at < s->n; at += BLOCK) {
        int rows = s->n - at < BLOCK ? s->n - at : BLOCK;
        distances(s, at, rows, s, block);
        for (int i = 0; i < rows; i++) out[at + i] = kth(block + (size_t)i * (size_t)s->n, s->n, k, at + i, least);
    }
    mem_free(least);
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static double median(const double *v, int n)
{
    double *sorted = mem_array((size_t)n, sizeof *sorted);
    memcpy(sorted, v, (size_t)n * sizeof *v);
    qsort(sorted, (size_t)n, sizeof *v, ascending);
    double m = n % 2 ? sorted[n / 2] : (sorted[n / 2 - 1] + sorted[n / 2]) / 2;
    mem_free(sorted);
    return m;
}

struct tally { /* of real against fake, a row of distances at a time */
    const double *real_radius, *fake_radius;
    double middle; /* median real radius */
    int m;
    bool *in_real; /* [m] */
    int64_t balls, recalled, covered;
    double *realism; /* [m] or NULL */
};

static void tally_row(struct tally *t, int i, const double *dist)
{
    bool recalled = false, covered = false;
    for (int j = 0; j < t->m; j++) {
        if (dist[j] < t->real_radius[i]) t->in_real[j] = covered = true, t->balls++;
        recalled = recalled || dist[j] < t->fake_radius[j];
        double ratio = t->real_radius[i] / dist[j];
        if (t->realism && t->real_radius[i] < t->middle && ratio > t->realism[j]) t->realism[j] = ratio;
    }
    t->recalled += recalled;
    t->covered += covered;
}

static void compare(const struct set *real, const struct set *fake, struct tally *t, double *block)
{
    for (int at = 0; at < real->n; at += BLOCK) {
        int rows = real->n - at < BLOCK ? real->n - at : BLOCK;
        distances(real, at, rows, fake, block);
        for (int i = 0; i < rows; i++) tally_row(t, at + i, block + (size_t)i * (size_t)fake->n);
    }
}

err_t prdc_of(const float *real, int n, const float *fake, int m, int d, int k, struct prdc *out, double *realism,
              double *radii)
{
    struct set r = {0}, f = {0};
    err_t err = ERR_OK;
    if (k < 1 || k >= n || k >= m)
        return fail(ERR_USAGE, "precision and recall: %d neighbours of %d real and %d fake samples", k, n, m);
    double *mean = mem_array((size_t)d, sizeof *mean),
           *block = mem_array((size_t)BLOCK * (size_t)(n > m ? n : m), sizeof *block);
    double *rr = mem_array((size_t)n + (size_t)m, sizeof *rr), *fr = rr + n;
    bool *in_real = mem_array((size_t)m, sizeof *in_real);
    for (int i = 0; i < n; i++)
        for (int q = 0; q < d; q++) mean[q] += real[(size_t)i * (size_t)d + (size_t)q] / (double)n;
    TRYD(set_init(&r, real, n, d, mean));
    TRYD(set_init(&f, fake, m, d, mean));
    radii_of(&r, k, block, rr);
    radii_of(&f, k, block, fr);
    struct tally t = {
        .real_radius = rr, .fake_radius = fr, .middle = median(rr, n), .m = m, .in_real = in_real, .realism = realism};
    for (int j = 0; realism && j < m; j++) realism[j] = 0;
    compare(&r, &f, &t, block);
    int64_t precise = 0;
    for (int j = 0; j < m; j++) precise += in_real[j];
    *out = (struct prdc){.precision = (double)precise / m,
                         .recall = (double)t.recalled / n,
                         .density = (double)t.balls / k / m,
                         .coverage = (double)t.covered / n};
    if (radii) memcpy(radii, rr, (size_t)n * sizeof *rr);
done:
    set_done(&r);
    set_done(&f);
    mem_free(mean);
    mem_free(block);
    mem_free(rr);
    mem_free(in_real);
    return err;
}

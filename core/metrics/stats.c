#include "core/metrics/stats.h"

#include <math.h>
#include <string.h>

#include "core/io/image.h"
#include "core/io/tensors.h"

enum { DIM_MAX = 16384 };

static err_t values_read(struct stats *s, const struct tensors *f, const char *path)
{
    const struct tensor *mu = tensors_find(f, "mu"), *sigma = tensors_find(f, "sigma"), *n = tensors_find(f, "n"),
                        *about = tensors_find(f, "about");
    if (!mu || !sigma) return fail(ERR_FORMAT, "%s: no statistics: it holds no 'mu' and 'sigma'", path);
    if (mu->ndim != 1 || mu->dims[0] < 1 || mu->dims[0] > DIM_MAX || sigma->ndim != 2 ||
        sigma->dims[0] != mu->dims[0] || sigma->dims[1] != mu->dims[0])
        return fail(ERR_FORMAT, "%s: 'mu' and 'sigma' are no mean and covariance", path);
    size_t d = (size_t)mu->dims[0];
    double count = 0;
    s->d = (int)d;
    s->mean = mem_array(d, sizeof *s->mean);
    s->cov = mem_array(d * d, sizeof *s->cov);
    TRY(tensor_read_f64(mu, s->mean, d));
    TRY(tensor_read_f64(sigma, s->cov, d * d));
    if (n && n->count == 1) TRY(tensor_read_f64(n, &count, 1));
    s->n = count >= 1 && count < 1e15 ? (int64_t)count : 0;
    s->about = mem_alloc(about && about->dtype == ST_U8 ? about->bytes + 1 : 1);
    if (about && about->dtype == ST_U8) tensor_read_raw(about, s->about);
    for (size_t i = 0; i < d; i++) {
        double own = s->cov[i * d + i];
        if (!isfinite(s->mean[i]) || !isfinite(own) || own < 0)
            return fail(ERR_FORMAT, "%s: value %zu of 'mu' or the diagonal of 'sigma' is %s", path, i,
                        own < 0 ? "negative" : "not finite");
        for (size_t j = 0; j < i; j++) {
            double a = s->cov[i * d + j], b = s->cov[j * d + i];
            if (!(fabs(a - b) <= 1e-5 * (fabs(a) + fabs(b)) + 1e-8 * sqrt(own * s->cov[j * d + j])))
                return fail(ERR_FORMAT, "%s: 'sigma' is not symmetric at (%zu, %zu)", path, i, j);
        }
    }
    return ERR_OK;
}

err_t stats_read(struct stats *s, const char *path)
{
    struct tensors *f;
    *s = (struct stats){.d = 0};
    TRY(tensors_open(&f, path));
    err_t err = values_read(s, f, path);
    tensors_close(f);
    if (!err) err = sha256_file(path, s->sha);
    if (err) stats_done(s);
    return err;
}

void stats_done(struct stats *s)
{
    mem_free(s->mean);
    mem_free(s->cov);
    mem_free(s->about);
    *s = (struct stats){.d = 0};
}

err_t stats_write(const char *path, const struct moments *m, bool biased, const char *about)
{
    size_t d = (size_t)m->d;
    if (m->n < 2) return fail(ERR_USAGE, "statistics of %lld images", (long long)m->n);
    double *cov = mem_array(d * d, sizeof *cov);
    moments_cov(m, biased, cov);
    struct npz_array a[] = {
        {.name = "mu", .descr = "<f8", .ndim = 1, .dims = {m->d}, .data = m->mean, .bytes = d * sizeof *m->mean},
        {.name = "sigma", .descr = "<f8", .ndim = 2, .dims = {m->d, m->d}, .data = cov, .bytes = d * d * sizeof *cov},
        {.name = "n", .descr = "<i8", .ndim = 0, .data = &m->n, .bytes = sizeof m->n},
        {.name = "about",
         .descr = "|u1",
         .ndim = 1,
         .dims = {(int64_t)strlen(about)},
         .data = about,
         .bytes = strlen(about)}};
    err_t err = npz_write(path, a, (int)ARRAY_LEN(a));
    mem_free(cov);
    return err;
}

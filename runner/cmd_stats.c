/* stats: mean and covariance of a data set's features, as the .npz file that other tools read and eval.stats takes. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/eval.h"
#include "core/eval_space.h"
#include "core/metrics/stats.h"
#include "runner/runner.h"

enum { BATCH = 64, SOME = 1024 };

static void told(int done, int total)
{
    if (isatty(STDERR_FILENO)) fprintf(stderr, "\r%d of %d images%s", done, total, done == total ? "\n" : "");
}

/* In chunks, so that memory does not grow with the data set. */
static err_t collect(struct spaces *all, const struct metric *m, const struct dataset *d, struct feature_set *set)
{
    struct space *space;
    size_t per = (size_t)d->h * (size_t)d->w * (size_t)d->c;
    TRY(spaces_get(all, m, false, &space));
    TRY(feature_set_init(set, space_dim(space), false));
    for (int at = 0; at < d->n; at += SOME) {
        int take = d->n - at < SOME ? d->n - at : SOME;
        TRY(space_add(space, set, d->pixels + (size_t)at * per, take));
        told(at + take, d->n);
    }
    return ERR_OK;
}

static err_t about_of(const struct metric *m, const struct dataset *d, struct text *t)
{
    char sha[SHA256_TEXT];
    TRY(extractor_identity(m->space, d->h, d->w, d->c, sha));
    metric_identity(m, sha, t);
    text_addf(t, "dataset=%s\ndataset.sha=%s\ncount=%d\n", d->name, d->sha, d->n);
    return ERR_OK;
}

/* "digits-fid-pytorch.npz" */
static char *file_name(const struct dataset *d, const struct metric *m)
{
    char *s = mem_printf("%s-%s.npz", d->name, m->name);
    for (char *c = s; *c; c++)
        if (*c == ':' || *c == '/') *c = '-';
    return s;
}

static err_t write_stats(struct args *a, const struct dataset *d, const struct metric *m, const struct kernels *k,
                         struct kdev *dev)
{
    struct spaces *all = spaces_new(d, BATCH, k, dev);
    struct feature_set set = {.n = 0};
    struct text about = {0};
    const char *out = args_get(a, "out");
    char *path = out ? mem_strdup(out) : file_name(d, m);
    err_t err = about_of(m, d, &about);
    if (!err) err = collect(all, m, d, &set);
    if (!err) err = stats_write(path, &set.m, m->biased, text_str(&about));
    if (!err)
        printf("wrote %s: mean and covariance (/ %s) of %d features of %d images\n", path, m->biased ? "N" : "(N - 1)",
               set.m.d, d->n);
    feature_set_done(&set);
    text_done(&about);
    spaces_free(all);
    mem_free(path);
    return err;
}

static err_t stats_command(struct args *a)
{
    const char *metric = args_get(a, "metric"), *device = args_get(a, "device");
    const struct kernels *k;
    struct kdev *dev = NULL;
    struct dataset *d = NULL;
    struct metric m;
    char name[32];
    err_t err = ERR_OK;
    if (!metric) metric = "fid:pytorch";
    if (!device) device = "cpu";
    TRY(dataset_open(&d, a->pos[0]));
    TRYD(eval_metric_check(metric, d, name));
    if (d->values) TRYD(fail(ERR_USAGE, "data set %s holds points: nothing has features there", d->name));
    TRYD(metric_parse(name, &m));
    if (m.measure != MEASURE_FRECHET)
        TRYD(fail(ERR_USAGE, "--metric %s: moments are of a Frechet distance, such as fid or fd_dinov2", name));
    TRYD(kernels_find(device, &k));
    TRYD(k->open(&dev, device, 0));
    err = write_stats(a, d, &m, k, dev);
done:
    if (dev) k->close(dev);
    dataset_free(d);
    return err;
}

static const struct opt stats_opts[] = {
    {"metric", 0, "NAME", "whose features: fid (default), fd_dinov2, fd_random, ..."},
    {"out", 'o', "FILE", "where to (default: ./DATASET-METRIC.npz)"},
    {"device", 0, "NAME", "cpu, cpu-portable, cuda:N"},
    OPT_END};
const struct command cmd_stats = {
    .name = "stats",
    .args = "DATASET",
    .help = "mean and covariance of a data set's features, as an .npz file",
    .min_pos = 1,
    .max_pos = 1,
    .opts = stats_opts,
    .more =
        "The file holds mu and sigma as pytorch-fid, EDM and NVIDIA's tools read and write them. Such a file, ours or\n"
        "a published one, stands for the data set in Frechet distances: `ect eval RUN --metrics fid --set\n"
        "eval.stats=cifar10-32x32.npz`. Covariances are / (N - 1); with :n behind the metric's name (fid:n) / N.",
    .run = stats_command};

/* sample: images from a trained run. Image i depends on its seed only, not on how many are drawn. */
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "core/io/image.h"
#include "runner/pictures.h"
#include "runner/subject.h"

enum { SEEDS_MAX = 1000000, CHUNK = 256 };

/* "0-63", "7", "1,5,10-19" */
static err_t parse_seeds(const char *text, uint32_t **seeds, int *n)
{
    int cap = 64;
    *seeds = mem_array((size_t)cap, sizeof **seeds);
    *n = 0;
    for (const char *s = text;;) {
        char *end;
        if (*s < '0' || *s > '9') goto bad;
        unsigned long a = strtoul(s, &end, 10), b = a;
        if (*end == '-' && end[1] >= '0' && end[1] <= '9') b = strtoul(end + 1, &end, 10);
        if (b < a || b > UINT32_MAX || b - a >= SEEDS_MAX || *n + (int)(b - a) + 1 > SEEDS_MAX) goto bad;
        int need = *n + (int)(b - a) + 1, old = cap;
        while (cap < need) cap *= 2;
        if (cap > old) *seeds = mem_grow(*seeds, (size_t)old * sizeof **seeds, (size_t)cap * sizeof **seeds);
        for (unsigned long v = a; v <= b; v++) (*seeds)[(*n)++] = (uint32_t)v;
        if (!*end) return ERR_OK;
        if (*end != ',') goto bad;
        s = end + 1;
    }
bad:
    mem_free(*seeds);
    *seeds = NULL;
    return fail(ERR_USAGE, "--seeds %s: not like 0-63 or 1,5,10-19 (at most %d)", text, SEEDS_MAX);
}

static bool ends_with(const char *s, const char *end)
{
    size_t n = strlen(s), m = strlen(end);
    return n >= m && !strcmp(s + n - m, end);
}

/* A directory may have any name if it exists; a new one with an ending is more likely a mistaken file. */
static err_t check_out(const char *out)
{
    const char *base = out && strrchr(out, '/') ? strrchr(out, '/') + 1 : out;
    struct stat st;
    if (!out || ends_with(out, ".npz") || ends_with(out, ".png") || ends_with(out, ".csv") || ends_with(out, ".zip") ||
        (stat(out, &st) == 0 && S_ISDIR(st.st_mode)))
        return ERR_OK;
    if (!*out) return fail(ERR_USAGE, "--out: an empty name");
    if (*base && strchr(base + 1, '.'))
        return fail(ERR_USAGE, "--out %s: a file ends in .npz, .png or .zip, the name of a new directory has no dot",
                    out);
    return ERR_OK;
}

/* labels: NULL for an unconditional network */
static err_t write_images(const char *out, const uint8_t *px, const int32_t *labels, const uint32_t *seeds, int n,
                          const struct dataset *d)
{
    size_t per = (size_t)d->h * (size_t)d->w * (size_t)d->c;
    err_t err = ERR_OK;
    if (ends_with(out, ".npz")) return npz_write_images(out, px, labels, n, d->h, d->w, d->c);
    if (ends_with(out, ".zip")) return zip_write_images(out, px, labels, n, d->h, d->w, d->c);
    if (ends_with(out, ".png")) {
        void *png;
        size_t size;
        TRY(picture_png(px, n, d->h, d->w, d->c, &png, &size));
        err = file_write_atomic(out, png, size);
        mem_free(png);
        return err;
    }
    if (ends_with(out, ".csv")) return fail(ERR_USAGE, "--out %s: images go to a directory, .npz, .png or .zip", out);
    TRY(dir_make(out));
    for (int i = 0; i < n && !err; i++) {
        char *path = mem_printf("%s/%06u.png", out, seeds[i]);
        err = png_write(path, px + (size_t)i * per, d->h, d->w, d->c);
        mem_free(path);
    }
    return err;
}

static err_t write_points(const char *out, const double *x, int n, int dim)
{
    err_t err = ERR_OK;
    void *png;
    size_t size;
    if (ends_with(out, ".png")) {
        TRY(picture_points_png(x, n, &png, &size));
        err = file_write_atomic(out, png, size);
        mem_free(png);
        return err;
    }
    if (!ends_with(out, ".csv"))
        return fail(ERR_USAGE, "--out %s: points go to a .csv or, as a scatter plot, a .png", out);
    struct text t = {0};
    char num[NUM_TEXT];
    for (int i = 0; i < n * dim; i++) text_addf(&t, "%s%c", num_text(num, x[i]), (i + 1) % dim ? ',' : '\n');
    err = file_write_atomic(out, text_str(&t), t.len);
    text_done(&t);
    return err;
}

/* The ending that a format gives a file; "" for a directory. Format and --out must agree. */
static err_t format_ending(const char *format, const char *out, const char **end)
{
    static const char *const names[] = {"png", "npz", "zip", "csv", "dir"};
    static const char *const ends[] = {".png", ".npz", ".zip", ".csv", ""};
    *end = ".png";
    if (!format) return ERR_OK;
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        if (strcmp(names[i], format)) continue;
        bool agrees =
            !out || (*ends[i] ? ends_with(out, ends[i])
                              : !ends_with(out, ".png") && !ends_with(out, ".npz") && !ends_with(out, ".zip"));
        if (!agrees) return fail(ERR_USAGE, "--format %s, but --out %s is another format", format, out);
        *end = ends[i];
        return ERR_OK;
    }
    const char *near = nearest_name(format, names, ARRAY_LEN(names));
    return fail(ERR_USAGE,
                "--format %s: png (a grid), npz, zip (a data set), dir (one PNG an image) or csv (points)%s%s", format,
                near ? "; did you mean " : "", near ? near : "");
}

static err_t draw(struct subject *s, const uint32_t *seeds, int n, const char *out, const char *end)
{
    const struct dataset *d = s->data;
    size_t per = (size_t)d->h * (size_t)d->w * (size_t)d->c;
    struct eval_request q;
    int nfe = s->spec.eval_nfe.n ? (int)s->spec.eval_nfe.v[0] : 1;
    TRY(eval_request_init(&q, &s->spec, &s->spec, "fd_pixel", nfe));
    TRY(sampling_load(&s->sampling, s->ckpt, -1, s->spec.eval_ema.s));
    double *x = mem_array((d->values ? (size_t)n + CHUNK : CHUNK) * per, sizeof *x);
    uint8_t *px = mem_array((size_t)n * per, 1);
    bool labelled = q.cond && q.labels.kind != LABELS_NONE;
    int32_t *labels = labelled ? mem_array((size_t)n, sizeof *labels) : NULL;
    err_t err = ERR_OK;
    for (int i = 0; i < n && !err; i += CHUNK) {
        int k = n - i < CHUNK ? n - i : CHUNK;
        err = eval_samples(s->sampling.eval, s->sampling.params, &q, q.seed, seeds + i, k,
                           d->values ? x + (size_t)i * per : x);
        if (!err && !d->values) image_view_u8(x, px + (size_t)i * per, (size_t)k * per);
    }
    for (int i = 0; labels && !err && i < n; i++) labels[i] = labels_class(&q.labels, d, q.seed, seeds[i]);
    char *made = out ? mem_strdup(out)
                     : mem_printf("%s/samples/%s%d-%s%s", s->dir, q.sampler.name, nfe, s->spec.eval_ema.s, end);
    if (!err && !out) {
        char *dir = mem_printf("%s/samples", s->dir);
        err = dir_make(dir);
        mem_free(dir);
    }
    if (!err) err = d->values ? write_points(made, x, n, d->c) : write_images(made, px, labels, seeds, n, d);
    if (!err)
        printf("wrote %s: %d %s%s of run %s, %s with %d evaluation%s, weights %s%s%s\n", made, n,
               d->values ? "point" : "image", n == 1 ? "" : "s", s->row.id, q.sampler.name, nfe, nfe == 1 ? "" : "s",
               s->spec.eval_ema.s, labels ? ", labels " : "", labels ? s->spec.eval_labels.s : "");
    mem_free(made);
    mem_free(labels);
    mem_free(x);
    mem_free(px);
    return err;
}

static err_t sample_run(struct args *a)
{
    struct subject s;
    uint32_t *seeds;
    int n;
    const char *text = args_get(a, "seeds"), *end;
    TRY(check_out(args_get(a, "out")));
    TRY(format_ending(args_get(a, "format"), args_get(a, "out"), &end));
    TRY(parse_seeds(text ? text : "0-63", &seeds, &n));
    err_t err = subject_open(&s, a, a->pos[0], LEDGER_READ);
    if (!err) {
        err = draw(&s, seeds, n, args_get(a, "out"), end);
        subject_close(&s);
    }
    mem_free(seeds);
    return err;
}

static const struct opt sample_opts[] = {
    {"out", 'o', "DIR|x.npz|x.png|x.zip|x.csv", "where to (default: samples/ of the run)"},
    {"format", 0, "NAME", "png (a grid), npz, zip (a data set as EDM reads it), dir, csv: where --out does not say"},
    {"seeds", 0, "0-63", "which images"},
    {"nfe", 0, "N", "network evaluations per image"},
    {"sampler", 0, "NAME", "ect, heun, euler, dpmpp-2m, ... (eval.sampler in ect help settings)"},
    {"ema", 0, "NAME", "raw, an EMA's name, or posthoc:STD"},
    {"mid-t", 0, "T,...", "noise levels of steps 2, 3, ..."},
    {"labels", 0, "POLICY", "data, uniform, balanced, class:K or none; in x.npz beside the images"},
    {"set", 0, "KEY=VALUE", "another eval.* setting, such as eval.churn=40 (may be repeated)"},
    {"device", 0, "NAME", "cpu, cpu-portable, cuda:N"},
    OPT_LEDGER,
    OPT_END};
const struct command cmd_sample = {.name = "sample",
                                   .args = "RUN",
                                   .help = "images from a trained run",
                                   .min_pos = 1,
                                   .max_pos = 1,
                                   .opts = sample_opts,
                                   .run = sample_run};

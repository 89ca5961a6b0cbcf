/* Frechet distances of features made again by formula, kernel distance, precision and recall, and the operation counts of the full-size
 * networks. */
#include "tests/golden/golden.h"

#include <math.h>
#include <string.h>

#include "core/metrics/frechet.h"
#include "core/metrics/kernel.h"
#include "core/metrics/prdc.h"

/* ---- Frechet distance ------------------------------------------------------------------------------------------------------------------- */

/* README: X[i,j] = float32(m_j + s_j (a_ij + 0.5 b_i,(j mod 8))). */
static float *make_features(const char *name, int rows, int d, double off, double mul)
{
    char a[160], b[160], m[160], s[160];
    float *x = mem_array((size_t)rows * (size_t)d, sizeof(float));
    snprintf(a, sizeof a, "%.150s/a", name);
    snprintf(b, sizeof b, "%.150s/b", name);
    snprintf(m, sizeof m, "%.150s/m", name);
    snprintf(s, sizeof s, "%.150s/s", name);
    for (int j = 0; j < d; j++) {
        double mean = off * portable_u(m, (uint32_t)j), scale = mul * (1 + portable_u(s, (uint32_t)j));
        for (int i = 0; i < rows; i++) {
            double ua = portable_u(a, (uint32_t)(i * d + j)), ub = portable_u(b, (uint32_t)(i * 8 + j % 8));
            x[(size_t)i * (size_t)d + (size_t)j] = (float)(mean + scale * (ua + 0.5 * ub));
        }
    }
    return x;
}

struct side {
    float *x;
    int rows, d;
    struct moments m;
    double *cov; /* / (N - 1) */
    double trace;
};

static bool side_open(struct side *s, struct part *p, const json_t *c, int which)
{
    char key[16];
    snprintf(key, sizeof key, "x%d", which + 1);
    const char *name = json_string_value(json_object_get(c, key));
    const json_t *off = json_object_get(c, "off"), *mul = json_object_get(c, "mul");
    const char *first = json_string_value(json_object_get(c, "x1"));
    size_t set = name && first && !strcmp(name, first) ? 0 : (size_t)which; /* one name, one set of features */
    snprintf(key, sizeof key, "n%d", which + 1);
    s->rows = (int)json_num(c, key, 0);
    s->d = (int)json_num(c, "d", 0);
    if (!name || s->rows < 2 || s->d < 1 || s->d > 4096) {
        part_fail(p, "the case does not name its features");
        return false;
    }
    s->x = make_features(name, s->rows, s->d, json_number_value(json_array_get(off, set)),
                         json_number_value(json_array_get(mul, set)));
    if (moments_init(&s->m, s->d)) {
        part_fail(p, "%s", err_text());
        return false;
    }
    int half = s->rows / 2; /* two chunks, as an evaluation adds them */
    moments_add(&s->m, s->x, half);
    moments_add(&s->m, s->x + (size_t)half * (size_t)s->d, s->rows - half);
    s->cov = mem_array((size_t)s->d * (size_t)s->d, sizeof(double));
    moments_cov(&s->m, false, s->cov);
    s->trace = 0;
    for (int j = 0; j < s->d; j++) s->trace += s->cov[(size_t)j * (size_t)s->d + (size_t)j];
    return true;
}

static void side_close(struct side *s)
{
    if (s->m.mean) moments_done(&s->m);
    mem_free(s->x);
    mem_free(s->cov);
}

/* Features: all of them where stored, else the first rows' first columns; exact. */
static void compare_features(struct part *p, const char *name, const struct side *s, int which)
{
    size_t n = 0, cells = (size_t)s->rows * (size_t)s->d;
    double *all = take(p->f, &n, "%s/x%d", name, which + 1);
    double *got = mem_array(cells, sizeof(double));
    for (size_t i = 0; i < cells; i++) got[i] = s->x[i];
    if (all && n == cells) part_equal(p, "feature", "features", got, all, n);
    if (all && n != cells) part_fail(p, "%s/x%d has another shape", name, which + 1);
    mem_free(all);
    double *head = need(p, &n, "%s/x%d_head", name, which + 1);
    size_t columns = s->d < 8 ? (size_t)s->d : 8;
    for (size_t i = 0; head && i < n / columns; i++)
        for (size_t j = 0; j < columns; j++) got[i * columns + j] = s->x[i * (size_t)s->d + j];
    if (head) part_equal(p, "feature", "first features", got, head, n);
    mem_free(head);
    mem_free(got);
}

/* Statistics that the file may hold, each a prefix or the whole of ours. */
static void compare_stat(struct part *p, const char *name, const char *suffix, const double *got, size_t have,
                         size_t stride)
{
    size_t n = 0;
    double *want = take(p->f, &n, "%s/%s", name, suffix);
    if (!want) return;
    if (n > have) {
        part_fail(p, "%s/%s has more values than ours", name, suffix);
    } else {
        double *x = mem_array(n, sizeof(double));
        for (size_t i = 0; i < n; i++) x[i] = got[i * stride];
        part_close(p, "statistic", suffix, x, want, n, 1e-10 * max_abs(want, n)); /* double on both sides */
        mem_free(x);
    }
    mem_free(want);
}

static void compare_stats(struct part *p, const char *name, const struct side s[2])
{
    size_t d = (size_t)s[0].d;
    double trace[2] = {s[0].trace, s[1].trace};
    for (int k = 0; k < 2; k++) {
        char suffix[32];
        snprintf(suffix, sizeof suffix, "mu%d", k + 1);
        compare_stat(p, name, suffix, s[k].m.mean, d, 1);
        snprintf(suffix, sizeof suffix, "mu%d_head", k + 1);
        compare_stat(p, name, suffix, s[k].m.mean, d, 1);
        snprintf(suffix, sizeof suffix, "sigma%d", k + 1);
        compare_stat(p, name, suffix, s[k].cov, d * d, 1);
        snprintf(suffix, sizeof suffix, "sigma%d_diag", k + 1);
        compare_stat(p, name, suffix, s[k].cov, d, d + 1);
        snprintf(suffix, sizeof suffix, "sigma%d_row0", k + 1);
        compare_stat(p, name, suffix, s[k].cov, d, 1);
        snprintf(suffix, sizeof suffix, "sigma%d_row0_head", k + 1);
        compare_stat(p, name, suffix, s[k].cov, d, 1);
    }
    compare_stat(p, name, "trace", trace, 2, 1);
}

static void compare_distances(struct gfile *f, const char *name, const json_t *values, const struct side s[2])
{
    struct part p;
    double fd[2];
    const char *column;
    json_t *v;
    bool singular = s[0].rows <= s[0].d || s[1].rows <= s[1].d;
    double relative = singular ? 1e-6 : 1e-10, least = 1e-3 * (s[0].trace + s[1].trace);
    part_begin(&p, f, "%.40s distance", name);
    for (int biased = 0; biased < 2; biased++) {
        if (frechet_of(&s[0].m, &s[1].m, biased, &fd[biased])) part_fail(&p, "%s", err_text());
    }
    json_object_foreach((json_t *)values, column, v)
    {
        size_t n = 0;
        double want = json_number_value(v), got = fd[strstr(column, "biased") != NULL];
        double size = fabs(want) > least ? fabs(want) : least;
        double *stored = take(f, &n, "%s/fd/%s", name, column);
        if (stored && n == 1 && stored[0] != want) part_fail(&p, "%s: metadata and tensor differ", column);
        if (!p.failed) part_close(&p, "distance", column, &got, &want, 1, relative * size);
        mem_free(stored);
    }
    if (singular) part_note(&p, "singular covariance: 1e-6 relative");
    part_end(&p);
}

static void check_case(struct gfile *f, const json_t *c)
{
    struct part p;
    struct side s[2] = {0};
    const char *name = json_string_value(json_object_get(c, "name"));
    part_begin(&p, f, "%.40s features", name ? name : "(unnamed case)");
    bool ok = name != NULL;
    if (!name) part_fail(&p, "a case without a name");
    for (int k = 0; ok && k < 2; k++) ok = side_open(&s[k], &p, c, k);
    for (int k = 0; ok && k < 2; k++) compare_features(&p, name, &s[k], k);
    part_end(&p);
    if (ok) {
        part_begin(&p, f, "%.40s statistics", name);
        compare_stats(&p, name, s);
        part_end(&p);
        compare_distances(f, name, json_object_get(c, "values"), s);
    }
    for (int k = 0; k < 2; k++) side_close(&s[k]);
}

void check_frechet(struct gfile *f)
{
    json_t *cases = meta_json(f, "cases");
    if (!json_array_size(cases)) {
        struct part p;
        part_begin(&p, f, "cases");
        part_fail(&p, "no cases in its metadata");
        part_end(&p);
    }
    for (size_t i = 0; i < json_array_size(cases); i++) check_case(f, json_array_get(cases, i));
    json_decref(cases);
}

/* ---- operation counts ------------------------------------------------------------------------------------------------------------------------ */

static void compare_counts(struct part *p, const json_t *entry, const struct graph *g)
{
    struct flops f;
    const json_t *parts = json_object_get(entry, "breakdown");
    double trainable = 0, buffers = 0;
    graph_flops(g, &f);
    for (int i = 0; i < graph_nparams(g); i++) {
        const struct param_info *info = graph_param_info(g, i);
        trainable += !info->buffer;
        buffers += info->buffer ? (double)info->count : 0;
    }
    const struct {
        const char *name;
        double ours, theirs;
    } counts[] = {
        {"linear", f.linear, json_num(parts, "linear", -1)},
        {"conv3x3", f.conv3x3, json_num(parts, "conv3x3", -1)},
        {"conv1x1", f.conv1x1, json_num(parts, "conv1x1", -1)},
        {"resample", f.resample, json_num(parts, "resample_depthwise_conv", -1)},
        {"attention", f.attention, json_num(parts, "attention_matmul", 0)},
        {"total", flops_total(&f), json_num(entry, "total_flops", -1)},
        {"total without resample", flops_total(&f) - f.resample, json_num(entry, "total_flops_without_resample", -1)},
        {"params", (double)graph_param_count(g), json_num(entry, "params", -1)},
        {"trainable tensors", trainable, json_num(entry, "trainable_tensors", -1)},
        {"buffers", buffers, json_num(entry, "buffers", -1)},
    };
    for (size_t i = 0; i < ARRAY_LEN(counts); i++)
        part_equal(p, "count", counts[i].name, &counts[i].ours, &counts[i].theirs, 1);
    p->tensors = 0;
}

static void check_entry(struct gfile *f, const char *name, const json_t *entry)
{
    struct part p;
    struct net_config c;
    char why[160];
    const json_t *config = json_object_get(entry, "config");
    const char *type = json_string_value(json_object_get(config, "model_type"));
    bool edm2 = json_is_object(config) && !type; /* EDM2's configurations name no type */
    bool known = edm2 || (type && (!strcmp(type, "SongUNet") || !strcmp(type, "DhariwalUNet")));
    part_begin(&p, f, "%.60s", name);
    if (!known) {
        part_fail(&p, "unknown network %s", type ? type : "(no config)");
    } else if (!gnet_config(config, 0.5, &c, why)) {
        part_not_yet(f, name, why);
        return;
    } else {
        /* whether EDM2's uncertainty head is counted is not in the configuration: it has buffers, the embedding has two */
        int noise = c.width * (c.noise_mult ? c.noise_mult : c.mult[0]);
        c.logvar_channels = ((int)json_num(entry, "buffers", 0) - 2 * noise) / 2;
        c.logvar = edm2 && c.logvar_channels > 0;
        struct graph *g = graph_new();
        if (net_build(g, &c)) part_fail(&p, "%s", err_text());
        else compare_counts(&p, entry, g);
        graph_free(g);
    }
    part_end(&p);
}

void check_flops(struct golden *g, const char *path, const char *name)
{
    struct gfile f = {.g = g, .path = path, .name = name};
    json_t *all = json_load_file(path, 0, NULL), *entry;
    const char *key;
    if (!json_is_object(all)) {
        struct part p;
        part_begin(&p, &f, "flops");
        part_fail(&p, "no JSON object");
        part_end(&p);
    }
    json_object_foreach(all, key, entry) check_entry(&f, key, entry);
    json_decref(all);
}

/* ---- kernel distance, precision and its companions ------------------------------------------------------------------------------------- */

static float *take_floats(struct part *p, const char *name, int *rows, int *d)
{
    size_t n;
    const struct st_tensor *t = st_find(p->f->st, name);
    double *x = need(p, &n, "%s", name);
    if (!x || t->ndim != 2) {
        if (x) part_fail(p, "%s is no matrix", name);
        mem_free(x);
        return NULL;
    }
    float *f = mem_array(n, sizeof *f);
    for (size_t i = 0; i < n; i++) f[i] = (float)x[i];
    *rows = (int)t->dims[0], *d = (int)t->dims[1];
    mem_free(x);
    return f;
}

struct two_sets {
    float *real, *fake;
    int n, m, d;
};

static int32_t *take_rows(struct part *p, const char *name, int rows, size_t *count)
{
    double *x = need(p, count, "%s", name);
    if (!x) return NULL;
    int32_t *idx = mem_array(*count, sizeof *idx);
    for (size_t i = 0; i < *count; i++) {
        if (!(x[i] >= 0 && x[i] < rows)) part_fail(p, "%s: row %g of %d", name, x[i], rows);
        idx[i] = p->failed ? 0 : (int32_t)x[i];
    }
    mem_free(x);
    return idx;
}

/* Sums of (x.y / d + 1)^3 over thousands of pairs, in double on both sides. */
static void compare_mmd(struct gfile *f, const struct two_sets *s)
{
    struct part p;
    size_t n, na, nb;
    double size = 0;
    part_begin(&p, f, "kernel distance");
    int32_t *a = take_rows(&p, "kd/idx_real", s->n, &na), *b = take_rows(&p, "kd/idx_fake", s->m, &nb);
    double *want = need(&p, &n, "kd/mmd2"), *first = take(f, NULL, "kd/mmd2_first_k");
    const char *text = st_meta(f->st, "first_k");
    if (a && b && want && !p.failed && na == nb && n && na % n == 0) {
        double *got = mem_array(n, sizeof *got);
        size_t each = na / n;
        for (size_t i = 0; i < n; i++)
            got[i] = mmd2_polynomial(s->real, a + i * each, s->fake, b + i * each, (int)each, s->d);
        part_close(&p, "kernel distance", "subsets", got, want, n, 1e-10 * max_abs(want, n));
        mem_free(got);
    } else part_fail(&p, "the subsets do not fit");
    if (first && text && num_parse(text, &size) && size >= 2 && size <= s->n && size <= s->m) {
        double got = mmd2_polynomial(s->real, NULL, s->fake, NULL, (int)size, s->d);
        part_close(&p, "kernel distance", "first rows", &got, first, 1, 1e-10 * fabs(first[0]));
    } else if (first) part_fail(&p, "kd/mmd2_first_k without first_k");
    mem_free(a);
    mem_free(b);
    mem_free(want);
    mem_free(first);
    part_end(&p);
}

static void compare_prdc(struct gfile *f, const struct two_sets *s, int k)
{
    struct part p;
    struct prdc v;
    double *realism = mem_array((size_t)s->m, sizeof *realism), *radii = mem_array((size_t)s->n, sizeof *radii);
    part_begin(&p, f, "precision k=%d", k);
    if (prdc_of(s->real, s->n, s->fake, s->m, s->d, k, &v, realism, radii)) part_fail(&p, "%s", err_text());
    const struct {
        const char *name;
        const double *got;
        size_t n;
        bool exact;
    } all[] = {{"precision", &v.precision, 1, true},      {"recall", &v.recall, 1, true},
               {"density", &v.density, 1, true},          {"coverage", &v.coverage, 1, true},
               {"realism", realism, (size_t)s->m, false}, {"real_radii", radii, (size_t)s->n, false}};
    for (size_t i = 0; i < ARRAY_LEN(all) && !p.failed; i++) {
        size_t n;
        double *want = take(f, &n, "prdc/k%d/%s", k, all[i].name);
        if (!want) continue;
        if (n != all[i].n) part_fail(&p, "prdc/k%d/%s has another shape", k, all[i].name);
        else /* counts over counts: one rounding; distances: double on both sides */
            part_close(&p, "precision", all[i].name, all[i].got, want, n,
                       (all[i].exact ? 1e-15 : 1e-10) * fmax(max_abs(want, n), 1e-3));
        mem_free(want);
    }
    mem_free(realism);
    mem_free(radii);
    part_end(&p);
}

void check_kd_prdc(struct gfile *f)
{
    struct part p;
    struct two_sets s = {0};
    int d = 0;
    part_begin(&p, f, "features");
    s.real = take_floats(&p, "in/real", &s.n, &s.d);
    s.fake = take_floats(&p, "in/fake", &s.m, &d);
    if (!p.failed && d != s.d) part_fail(&p, "real and fake features differ in length");
    if (p.failed) part_end(&p);
    else {
        compare_mmd(f, &s);
        for (int k = 1; k < s.n; k++)
            if (has_tensor(f, "prdc/k%d/precision", k)) compare_prdc(f, &s, k);
    }
    mem_free(s.real);
    mem_free(s.fake);
}

/* Profiles are powers, so every inner product is closed: nothing is sampled or integrated. The matrix is nearly singular by nature
 * (neighbouring averages look alike), hence long double, unit diagonals, and a Cholesky factorisation that takes the stored average
 * with the largest part that is still unexplained first and stops when nothing is left. */
#include "core/ema.h"

#include <dirent.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/io/safetensors.h"

#define UNEXPLAINED 1e-13L

/* ---- profiles -------------------------------------------------------------------------------------------------------- */

static bool width_ok(double std)
{
    return std > 0 && std < sqrt(1.0 / 12);
}

/* Newton in ln(gamma + 1): std falls smoothly from 1/sqrt(12) at gamma = 0 like 1/gamma. */
static long double gamma_of(double std)
{
    long double u = logl(1 / (long double)std), want = logl((long double)std);
    for (int i = 0; i < 200; i++) {
        long double g = expl(u) - 1, f = 0.5L * (logl(g + 1) - 2 * logl(g + 2) - logl(g + 3)) - want;
        long double slope = 0.5L * (1 - 2 * (g + 1) / (g + 2) - (g + 1) / (g + 3)), next = u - f / slope;
        if (fabsl(next - u) <= 1e-18L * (1 + fabsl(u))) return expl(next) - 1;
        u = next;
    }
    return expl(u) - 1;
}

double ema_gamma(double std)
{
    return (double)gamma_of(std);
}

static long double dot(long double ta, long double ga, long double tb, long double gb)
{
    long double early = ta < tb ? ta : tb, late = ta < tb ? tb : ta, of_later = ta < tb ? gb : ga;
    return (ga + 1) * (gb + 1) / (ga + gb + 1) * powl(early / late, of_later) / late;
}

double ema_dot(struct ema_profile a, struct ema_profile b)
{
    return (double)dot(a.nimg, gamma_of(a.std), b.nimg, gamma_of(b.std));
}

void ema_response(struct ema_profile p, int n, double *out)
{
    double gamma = ema_gamma(p.std), sum = 0;
    for (int t = 0; t < n; t++) {
        out[t] = t <= p.nimg ? pow(t / p.nimg, gamma) : 0;
        sum += out[t];
    }
    for (int t = 0; t < n; t++) out[t] /= sum;
}

/* ---- the combination ---------------------------------------------------------------------------------------------------- */

struct system {
    int n, rank;
    long double *a, *b, *gamma; /* [n, n] inner products as given; [n]; [n] */
    long double *l;             /* [n, n] Cholesky factor of the scaled matrix, rows in the order taken */
    long double *left, *y;      /* [n] what is unexplained of each; a vector */
    int *order;                 /* [n] */
};

static struct system *system_new(int n)
{
    struct system *s = mem_alloc(sizeof *s);
    size_t k = (size_t)n;
    s->n = n;
    s->a = mem_array(2 * k * k + 4 * k, sizeof(long double));
    s->l = s->a + k * k;
    s->b = s->l + k * k;
    s->gamma = s->b + k;
    s->left = s->gamma + k;
    s->y = s->left + k;
    s->order = mem_array(k, sizeof(int));
    return s;
}

static void system_free(struct system *s)
{
    mem_free(s->a);
    mem_free(s->order);
    mem_free(s);
}

static long double scaled(const struct system *s, int i, int j)
{
    return s->a[i * s->n + j] / sqrtl(s->a[i * s->n + i] * s->a[j * s->n + j]);
}

/* Row k of l belongs to average order[k]; left[i] is 1 minus the squares of row i so far. */
static void factor(struct system *s)
{
    int n = s->n;
    for (int i = 0; i < n; i++) {
        s->order[i] = i;
        s->left[i] = 1;
    }
    for (s->rank = 0; s->rank < n; s->rank++) {
        int k = s->rank, best = k;
        for (int i = k + 1; i < n; i++)
            if (s->left[s->order[i]] > s->left[s->order[best]]) best = i;
        if (s->left[s->order[best]] <= UNEXPLAINED) break;
        int taken = s->order[best];
        s->order[best] = s->order[k];
        s->order[k] = taken;
        long double root = sqrtl(s->left[taken]);
        for (int i = k; i < n; i++) { /* column k of every row that is left; rows are kept by average */
            int row = s->order[i];
            long double v = scaled(s, row, taken);
            for (int j = 0; j < k; j++) v -= s->l[row * n + j] * s->l[taken * n + j];
            s->l[row * n + k] = i == k ? root : v / root;
            if (i > k) s->left[row] -= s->l[row * n + k] * s->l[row * n + k];
        }
    }
}

static void solve(struct system *s, long double *x)
{
    int n = s->n;
    for (int i = 0; i < n; i++) x[i] = 0;
    for (int i = 0; i < s->rank; i++) {
        int row = s->order[i];
        long double v = s->b[row] / sqrtl(s->a[row * n + row]);
        for (int j = 0; j < i; j++) v -= s->l[row * n + j] * s->y[j];
        s->y[i] = v / s->l[row * n + i];
    }
    for (int i = s->rank; i-- > 0;) {
        long double v = s->y[i];
        for (int j = i + 1; j < s->rank; j++) v -= s->l[s->order[j] * n + i] * s->y[j];
        s->y[i] = v / s->l[s->order[i] * n + i];
    }
    for (int i = 0; i < s->rank; i++) {
        int row = s->order[i];
        x[row] = s->y[i] / sqrtl(s->a[row * n + row]);
    }
}

static struct ema_quality judge(const struct system *s, const long double *x, long double wanted)
{
    long double square = wanted, growth = 0;
    for (int i = 0; i < s->n; i++) {
        growth += fabsl(x[i]);
        square -= 2 * x[i] * s->b[i];
        for (int j = 0; j < s->n; j++) square += x[i] * x[j] * s->a[i * s->n + j];
    }
    return (struct ema_quality){.miss = square > 0 ? (double)sqrtl(square / wanted) : 0, .growth = (double)growth};
}

err_t ema_solve(const struct ema_profile *in, int n, struct ema_profile out, double *x, struct ema_quality *quality)
{
    if (n < 1) return fail(ERR_USAGE, "no averages to combine");
    for (int i = -1; i < n; i++) {
        struct ema_profile p = i < 0 ? out : in[i];
        if (!width_ok(p.std))
            return fail(ERR_USAGE, "an EMA's relative width must be in (0, 0.2886), 1/sqrt(12) at most, not %g", p.std);
        if (!(p.nimg > 0)) return fail(ERR_USAGE, "an EMA after %g images", p.nimg);
    }
    struct system *s = system_new(n);
    long double *v = mem_array((size_t)n, sizeof *v), gamma = gamma_of(out.std), sum = 0;
    for (int i = 0; i < n; i++) s->gamma[i] = gamma_of(in[i].std);
    for (int i = 0; i < n; i++) {
        s->b[i] = dot(in[i].nimg, s->gamma[i], out.nimg, gamma);
        for (int j = 0; j < n; j++) s->a[i * n + j] = dot(in[i].nimg, s->gamma[i], in[j].nimg, s->gamma[j]);
    }
    factor(s);
    solve(s, v);
    for (int i = 0; i < n; i++) sum += v[i];
    for (int i = 0; i < n; i++) x[i] = (double)(v[i] /= sum);
    if (quality) *quality = judge(s, v, dot(out.nimg, gamma, out.nimg, gamma));
    mem_free(v);
    system_free(s);
    return ERR_OK;
}

/* ---- names ------------------------------------------------------------------------------------------------------------------ */

double ema_width(const char *id)
{
    double std;
    char num[NUM_TEXT];
    size_t n = strcspn(id, ")");
    if (strncmp(id, "power(std=", 10) || !id[n] || n - 10 >= sizeof num) return 0;
    snprintf(num, sizeof num, "%.*s", (int)(n - 10), id + 10);
    return num_parse(num, &std) && width_ok(std) ? std : 0;
}

err_t ema_weights_width(const char *weights, double *std)
{
    *std = 0;
    if (strncmp(weights, "posthoc:", 8)) return ERR_OK;
    if (num_parse(weights + 8, std) && width_ok(*std)) return ERR_OK;
    *std = 0;
    return fail(ERR_USAGE, "weights '%s': posthoc:STD with a relative width STD in (0, 0.2886), such as posthoc:0.07",
                weights);
}

bool ema_snapshot_due(int64_t step, int64_t iters, int64_t n)
{
    if (n < 1 || step < 1) return false;
    int64_t k = (2 * step * n + iters) / (2 * iters); /* the nearest mark */
    for (int64_t i = k > 1 ? k - 1 : 1; i <= k + 1 && i <= n; i++)
        if ((2 * i * iters + n) / (2 * n) == step) return true;
    return false;
}

/* ---- snapshots ---------------------------------------------------------------------------------------------------------------- */

struct stored { /* one average in one file */
    int file;
    char name[32];
    struct ema_profile profile;
};
struct shelf {
    int nfiles, n;
    struct st_file **file; /* [nfiles] */
    int64_t *step;         /* [nfiles], ascending */
    struct stored *v;      /* [n] */
};

static void shelf_done(struct shelf *s)
{
    for (int i = 0; i < s->nfiles; i++) st_close(s->file[i]);
    mem_free(s->file);
    mem_free(s->step);
    mem_free(s->v);
}

static int ascending(const void *a, const void *b)
{
    const int64_t *x = a, *y = b;
    return (*x > *y) - (*x < *y);
}

static err_t list_snapshots(const char *dir, int64_t **steps, int *n)
{
    *steps = NULL;
    *n = 0;
    DIR *d = opendir(dir);
    if (!d) return fail(ERR_IO, "open checkpoint directory %s: %s", dir, strerror(errno));
    for (struct dirent *e; (e = readdir(d));) {
        long long v;
        int len = 0;
        if (sscanf(e->d_name, "ema-%lld.safetensors%n", &v, &len) != 1 || !len || e->d_name[len] || v < 1) continue;
        size_t used = (size_t)*n * sizeof **steps;
        *steps = mem_grow(*steps, used, used + sizeof **steps);
        (*steps)[(*n)++] = v;
    }
    closedir(d);
    if (*n) qsort(*steps, (size_t)*n, sizeof **steps, ascending);
    return ERR_OK;
}

/* "name=id name=id" of the setting ema, out of the settings' text; the words are cut apart in it. */
static char *ema_setting(const struct st_file *f)
{
    const char *spec = st_meta(f, "spec"), *at = spec ? strstr(spec, "\nema=") : NULL;
    if (!at) return mem_strdup("");
    char *text = mem_strdup(at + 5);
    text[strcspn(text, "\n")] = 0;
    return text;
}

static void add_averages(struct shelf *s, int file, double nimg)
{
    char *text = ema_setting(s->file[file]), *save = NULL;
    for (char *word = strtok_r(text, " ", &save); word; word = strtok_r(NULL, " ", &save)) {
        char *id = strchr(word, '=');
        if (!id) continue;
        *id++ = 0;
        double std = ema_width(id);
        if (!(std > 0)) continue;
        size_t used = (size_t)s->n * sizeof *s->v;
        s->v = mem_grow(s->v, used, used + sizeof *s->v);
        struct stored *v = &s->v[s->n++];
        *v = (struct stored){.file = file, .profile = {nimg, std}};
        snprintf(v->name, sizeof v->name, "%.31s", word);
    }
    mem_free(text);
}

/* Opens the snapshots up to `step` (< 0: all). */
static err_t shelf_open(struct shelf *s, const char *dir, int64_t step)
{
    int64_t *steps;
    int n;
    err_t err = list_snapshots(dir, &steps, &n);
    *s = (struct shelf){.step = steps};
    if (err) return err;
    s->file = mem_array((size_t)n + 1, sizeof *s->file);
    for (int i = 0; i < n && (step < 0 || steps[i] <= step); i++) {
        char *path = mem_printf("%s/ema-%09lld.safetensors", dir, (long long)steps[i]);
        int64_t nimg;
        err = st_open(&s->file[i], path);
        s->nfiles += !err;
        if (!err && (!st_meta(s->file[i], "nimg") || !int_parse(st_meta(s->file[i], "nimg"), &nimg) || nimg < 1))
            err = fail(ERR_FORMAT, "%s does not say after how many images it was taken", path);
        mem_free(path);
        if (err) return err;
        add_averages(s, i, (double)nimg);
    }
    if (!n)
        return fail(ERR_NOT_FOUND,
                    "no snapshots of EMAs in %s: train with posthoc.snapshots = 16, say, and EMAs "
                    "ect.ema.power{std=0.05} and ect.ema.power{std=0.1}",
                    dir);
    if (!s->nfiles)
        return fail(ERR_NOT_FOUND, "the first snapshot of EMAs in %s is of step %lld, after step %lld", dir,
                    (long long)steps[0], (long long)step);
    if (!s->n)
        return fail(ERR_NOT_FOUND,
                    "the snapshots in %s hold no power-function EMA: train with EMAs like "
                    "ect.ema.power{std=0.05} and ect.ema.power{std=0.1}",
                    dir);
    return ERR_OK;
}

static err_t read_into(const struct shelf *s, const char *prefix, const char *name, int file, float *out, size_t n)
{
    char *full = mem_printf("%s%s", prefix, name);
    const struct st_tensor *t = st_find(s->file[file], full);
    err_t err = t ? st_read_f32(t, out, n) : fail(ERR_FORMAT, "no tensor %s", full);
    if (err) err = fail_in(err, "snapshot of step %lld", (long long)s->step[file]);
    mem_free(full);
    return err;
}

/* One parameter in all stored averages -> its combination. sum: scratch. */
static err_t combine(const struct shelf *s, const double *x, const char *name, float *out, double *sum, size_t n)
{
    for (size_t e = 0; e < n; e++) sum[e] = 0;
    for (int k = 0; k < s->n; k++) {
        char prefix[48];
        if (x[k] == 0) continue;
        snprintf(prefix, sizeof prefix, "ema.%s.", s->v[k].name);
        TRY(read_into(s, prefix, name, s->v[k].file, out, n));
        for (size_t e = 0; e < n; e++) sum[e] += x[k] * out[e];
    }
    for (size_t e = 0; e < n; e++) out[e] = (float)sum[e];
    return ERR_OK;
}

/* Opens what is stored and finds the coefficients x[shelf->n]. */
static err_t prepare(struct shelf *s, const char *dir, int64_t step, double std, double **x, struct ema_made *made)
{
    *x = NULL;
    TRY(shelf_open(s, dir, step));
    const struct stored *newest = &s->v[s->n - 1];
    double images = newest->profile.nimg / (double)s->step[newest->file]; /* a step */
    int64_t last = s->step[s->nfiles - 1];
    *made = (struct ema_made){.step = step < 0 ? last : step, .stored = s->n};
    made->nimg = (int64_t)(images * (double)made->step + 0.5);
    struct ema_profile *in = mem_array((size_t)s->n, sizeof *in);
    *x = mem_array((size_t)s->n, sizeof **x);
    for (int i = 0; i < s->n; i++) in[i] = s->v[i].profile;
    err_t err = ema_solve(in, s->n, (struct ema_profile){(double)made->nimg, std}, *x, &made->quality);
    mem_free(in);
    if (err) return err;
    struct ema_quality q = made->quality;
    if (q.miss <= EMA_MISS_MAX && q.growth <= EMA_GROWTH_MAX) return ERR_OK;
    return fail(
        ERR_USAGE,
        "the %d stored averages (%d snapshots up to step %lld) do not span an EMA of width %g at step %lld: the "
        "nearest combination misses it by %.0f %% and amplifies rounding %.3g times; take a width nearer to the "
        "stored ones, a step at a snapshot, or train with more snapshots",
        s->n, s->nfiles, (long long)last, std, (long long)made->step, 100 * q.miss, q.growth);
}

err_t ema_load(const char *dir, int64_t step, double std, struct params *p, const struct graph *g,
               struct ema_made *made)
{
    struct shelf s;
    struct ema_made m;
    size_t most = 1;
    double *x, *sum = NULL;
    float *one = NULL;
    err_t err = prepare(&s, dir, step, std, &x, &m);
    if (err) goto done;
    for (int i = 0; i < graph_nparams(g); i++)
        if (graph_param_info(g, i)->count > most) most = graph_param_info(g, i)->count;
    one = mem_array(most, sizeof *one);
    sum = mem_array(most, sizeof *sum);
    for (int i = 0; i < graph_nparams(g); i++) {
        const struct param_info *info = graph_param_info(g, i);
        if (info->buffer) TRYD(read_into(&s, "", info->name, s.nfiles - 1, one, info->count));
        else TRYD(combine(&s, x, info->name, one, sum, info->count));
        params_set(p, i, one);
    }
    params_changed(p);
    if (made) *made = m;
done:
    mem_free(one);
    mem_free(sum);
    mem_free(x);
    shelf_done(&s);
    return err;
}

/* ---- a file of it ---------------------------------------------------------------------------------------------------------------- */

/* To half precision, ties to even; beyond its range infinity. */
static uint16_t half_of(float v)
{
    uint32_t sign = signbit(v) ? 0x8000 : 0;
    if (isnan(v)) return (uint16_t)(sign | 0x7e00);
    double a = fabs((double)v);
    if (a >= 65520) return (uint16_t)(sign | 0x7c00);
    int e;
    frexp(a, &e);
    if (e < -13) e = -13;                 /* subnormal: steps of 2^-24 */
    double unit = rint(ldexp(a, 11 - e)); /* 1024..2048 where normal; 2048 carries into the exponent by itself */
    return (uint16_t)(sign | (unit < 1024 ? (uint32_t)unit : (uint32_t)unit - 1024 + ((uint32_t)(e + 14) << 10)));
}

static void add_tensor(struct st_writer *w, const char *name, const struct st_tensor *like, const float *v, bool half)
{
    if (!half) {
        st_writer_add(w, name, ST_F32, like->ndim, like->dims, v);
        return;
    }
    uint16_t *h = mem_array(like->count + 1, sizeof *h);
    for (size_t i = 0; i < like->count; i++) h[i] = half_of(v[i]);
    st_writer_add(w, name, ST_F16, like->ndim, like->dims, h);
    mem_free(h);
}

static void add_meta(struct st_writer *w, const struct st_file *last, double std, const struct ema_made *m)
{
    static const char *const kept[] = {"version", "seed", "sigma_data", "spec", "config_hash"};
    char num[NUM_TEXT];
    struct {
        const char *key;
        double v;
    } made[] = {{"step", (double)m->step},
                {"nimg", (double)m->nimg},
                {"posthoc_std", std},
                {"posthoc_miss", m->quality.miss},
                {"posthoc_growth", m->quality.growth}};
    st_writer_meta(w, "format", "ect-weights-1");
    for (size_t i = 0; i < ARRAY_LEN(kept); i++)
        if (st_meta(last, kept[i])) st_writer_meta(w, kept[i], st_meta(last, kept[i]));
    for (size_t i = 0; i < ARRAY_LEN(made); i++) st_writer_meta(w, made[i].key, num_text(num, made[i].v));
}

/* Every tensor of the last snapshot: buffers as they are, parameters (under the first average's names) combined. */
static err_t add_all(struct st_writer *w, const struct shelf *s, const double *x, bool half)
{
    char prefix[48];
    const struct st_file *last = s->file[s->nfiles - 1];
    err_t err = ERR_OK;
    int n = snprintf(prefix, sizeof prefix, "ema.%s.", s->v[s->n - 1].name);
    for (int i = 0; i < st_count(last); i++) {
        const struct st_tensor *t = st_at(last, i);
        bool buffer = strncmp(t->name, "ema.", 4) != 0;
        if (!buffer && strncmp(t->name, prefix, (size_t)n)) continue;
        const char *name = buffer ? t->name : t->name + n;
        float *out = mem_array(t->count + 1, sizeof *out);
        double *sum = mem_array(t->count + 1, sizeof *sum);
        err = buffer ? st_read_f32(t, out, t->count) : combine(s, x, name, out, sum, t->count);
        if (!err) add_tensor(w, name, t, out, half);
        mem_free(out);
        mem_free(sum);
        if (err) return err;
    }
    return ERR_OK;
}

err_t ema_save(const char *dir, int64_t step, double std, const char *path, bool half, struct ema_made *made)
{
    struct shelf s;
    struct ema_made m;
    double *x;
    struct st_writer *w = st_writer_new();
    err_t err = prepare(&s, dir, step, std, &x, &m);
    if (!err) err = add_all(w, &s, x, half);
    if (!err) {
        add_meta(w, s.file[s.nfiles - 1], std, &m);
        err = st_writer_save(w, path);
    }
    if (!err && made) *made = m;
    st_writer_free(w);
    mem_free(x);
    shelf_done(&s);
    return err;
}

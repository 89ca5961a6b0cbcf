/* golden DIR [--device SPEC] [--threads N] [--perturb]: compares this program with vectors of the published code. Prints a line a part,
 *   pass|fail|not-yet  FILE  PART  N tensors  M values  WORST/BOUND
 * the tensors that nothing read, and last "N passed, N failed, N not yet". Exit status 1 if anything failed. What a file holds is
 * read from its metadata, never from its name. --perturb disturbs one value of every comparison by three bounds and expects each to fail.
 *
 * Bounds other than 20 f32_vs_f64 max|out64|, and why:
 *   F, c_noise, moments              stored in float32 only: 20 times the floor of the nearest tensor that has both, or of a float
 *   D_t, D_r                         the same: 20 times 4e-7, what networks of these families show
 *   loss of a network                a sum: the bound of D times the root of the summed squared weights (errors of random sign)
 *   a loss of D_t - D_r              at least 20 roundings of D_t or c, times the weight: at high stages the difference is lost in them
 *   a gain's gradient                a sum that may cancel: at least 20 roundings of the largest gradient of a gain
 *   no published gradient            of a layer whose input was not given: ours must be 0
 *   t, r, noise levels               20 float roundings of each value: stricter than the rule, which would let small levels be wrong;
 *                                    r of the float run 20 roundings of its t, of which it is a difference
 *   ct_cd_loss                       float32 only: see golden_ct.c
 *   decays, learning rates           double on both sides: 1e-12 of each value
 *   samples, optimised parameters    20 times 4 medians of the distance of the float run from its float64 twin
 *   samples without a float64 twin   the largest noise floor among the file's cases that have one, at least 4e-7
 *   out/ beside out64/               the float32 run itself: the rule's bound and its own distance from float64
 *   Frechet distances                1e-10 relative, 1e-6 where a covariance is singular (sqrtm of a singular product is inexact);
 *                                    at least that share of 1e-3 of the traces, for distances near zero
 *   portable gradients               gradstat/ holds sum, norm, first, last: 20 f32_vs_f64 of the norm, the sum's times root n
 *   any noise floor                  at least 2^-24: a float run that hits float64 to the last bit says nothing about noise
 *   non-finite published gradients   not compared: at S = 0 with c = 0 ours is 0 where theirs is 0/0, cleaned later */
#include "tests/golden/golden.h"

#include <dirent.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

const double bound_factor = 20;

double noise_floor(double f32_vs_f64)
{
    double least = ldexp(1, -24);
    return f32_vs_f64 > least ? f32_vs_f64 : least;
}

double max_abs(const double *x, size_t n)
{
    double most = 0;
    for (size_t i = 0; i < n; i++) {
        if (!(fabs(x[i]) <= most)) most = fabs(x[i]);
    }
    return most;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double noise_between(const double *a, const double *b, size_t n)
{
    double *d = mem_array(n + 1, sizeof *d);
    for (size_t i = 0; i < n; i++) d[i] = fabs(a[i] - b[i]);
    qsort(d, n, sizeof *d, by_value);
    double median = d[n / 2];
    mem_free(d);
    return 4 * median; /* of n normal errors the largest, for n of some hundred 4.6 medians */
}

/* ---- parts ------------------------------------------------------------------------------------------------------------------ */

void part_begin(struct part *p, struct gfile *f, const char *fmt, ...)
{
    va_list ap;
    *p = (struct part){.f = f};
    va_start(ap, fmt);
    vsnprintf(p->name, sizeof p->name, fmt, ap);
    va_end(ap);
}

void part_fail(struct part *p, const char *fmt, ...)
{
    if (p->failed) return; /* the first reason is the one to look at */
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(p->why, sizeof p->why, fmt, ap);
    va_end(ap);
    p->failed = true;
}

void part_note(struct part *p, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(p->note, sizeof p->note, fmt, ap);
    va_end(ap);
}

static struct golden_kind *kind_of(struct golden *g, const char *name)
{
    for (int i = 0; i < g->nkinds; i++) {
        if (!strcmp(g->kinds[i].name, name)) return &g->kinds[i];
    }
    if (g->nkinds == GOLDEN_KINDS) abort();
    g->kinds[g->nkinds].name = name;
    return &g->kinds[g->nkinds++];
}

static double error_in_bounds(double got, double want, double bound)
{
    double diff = fabs(got - want);
    if (diff == 0) return 0;
    return diff <= bound * 1e6 ? diff / bound : INFINITY; /* NaN too */
}

static bool is_outside(double error) /* in bounds; NaN was made infinite */
{
    return error > 1;
}

struct bounds { /* of value i: all + each |want_i| */
    double all, each;
};

static double bound_of(struct bounds b, double want)
{
    return b.all + b.each * fabs(want);
}

static void compare(struct part *p, const char *kind, const char *what, const double *got, const double *want, size_t n,
                    struct bounds b)
{
    size_t at = 0;
    double worst = 0;
    for (size_t i = 0; i < n; i++) {
        double e = error_in_bounds(got[i], want[i], bound_of(b, want[i]));
        if (e <= worst) continue;
        worst = e;
        at = i;
    }
    p->tensors++;
    p->values += (long)n;
    if (worst > p->worst) p->worst = worst;
    if (is_outside(worst))
        part_fail(p, "%s[%zu] = %.9g instead of %.9g, bound %.3g", what, at, got[at], want[at], bound_of(b, want[at]));
    if (!p->f->g->perturb || !n) return;
    size_t victim = n / 2;
    double bound = bound_of(b, want[victim]), off = bound > 0 ? 3 * bound : 1;
    bool caught = is_outside(error_in_bounds(got[victim] + off, want[victim], bound));
    struct golden_kind *k = kind_of(p->f->g, kind);
    k->caught += caught;
    k->missed += !caught;
}

void part_close(struct part *p, const char *kind, const char *what, const double *got, const double *want, size_t n,
                double bound)
{
    compare(p, kind, what, got, want, n, (struct bounds){.all = bound});
}

void part_close_each(struct part *p, const char *kind, const char *what, const double *got, const double *want,
                     size_t n, double relative)
{
    compare(p, kind, what, got, want, n, (struct bounds){.each = relative});
}

void part_equal(struct part *p, const char *kind, const char *what, const double *got, const double *want, size_t n)
{
    compare(p, kind, what, got, want, n, (struct bounds){0});
}

void part_same(struct part *p, const char *kind, const char *what, const char *got, const char *want)
{
    p->values++;
    if (strcmp(got, want)) part_fail(p, "%s: %s instead of %s", what, got, want);
    if (p->f->g->perturb) {
        char other[256];
        snprintf(other, sizeof other, "%s.", got);
        bool caught = strcmp(other, want) != 0;
        struct golden_kind *k = kind_of(p->f->g, kind);
        k->caught += caught;
        k->missed += !caught;
    }
}

void part_end(struct part *p)
{
    struct golden *g = p->f->g;
    if (!p->failed && !p->values) part_fail(p, "nothing was compared");
    g->passed += !p->failed;
    g->failed += p->failed;
    if (g->perturb && !p->failed) return;
    printf("%-7s  %s  %s  %d tensors  %ld values  %.3g/1%s%s%s%s\n", p->failed ? "fail" : "pass", p->f->name, p->name,
           p->tensors, p->values, p->worst, p->note[0] ? "  " : "", p->note, p->failed ? "  " : "", p->why);
}

void part_not_yet(struct gfile *f, const char *name, const char *note)
{
    f->g->notyet++;
    if (!f->g->perturb) printf("not-yet  %s  %s  0 tensors  0 values  -  %s\n", f->name, name, note);
}

/* ---- tensors and metadata ----------------------------------------------------------------------------------------------------- */

static int tensor_index(const struct gfile *f, const char *name)
{
    for (int i = 0; i < st_count(f->st); i++) {
        if (!strcmp(st_at(f->st, i)->name, name)) return i;
    }
    return -1;
}

bool has_tensor(const struct gfile *f, const char *fmt, ...)
{
    char name[256];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(name, sizeof name, fmt, ap);
    va_end(ap);
    return tensor_index(f, name) >= 0;
}

static double *take_named(struct gfile *f, size_t *n, const char *name)
{
    int i = tensor_index(f, name);
    if (i < 0) return NULL;
    const struct st_tensor *t = st_at(f->st, i);
    double *x = mem_array(t->count ? t->count : 1, sizeof(double));
    if (st_read_f64(t, x, t->count)) {
        mem_free(x);
        return NULL;
    }
    f->read[i] = true;
    if (n) *n = t->count;
    return x;
}

double *take(struct gfile *f, size_t *n, const char *fmt, ...)
{
    char name[256];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(name, sizeof name, fmt, ap);
    va_end(ap);
    return take_named(f, n, name);
}

double *need(struct part *p, size_t *n, const char *fmt, ...)
{
    char name[256];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(name, sizeof name, fmt, ap);
    va_end(ap);
    double *x = take_named(p->f, n, name);
    if (!x) part_fail(p, "no tensor %s, or one that cannot be read", name);
    return x;
}

json_t *meta_json(const struct gfile *f, const char *key)
{
    const char *text = st_meta(f->st, key);
    return text ? json_loads(text, JSON_DECODE_ANY, NULL) : NULL;
}

double json_num(const json_t *o, const char *key, double absent)
{
    const json_t *v = json_object_get(o, key);
    return json_is_number(v) ? json_number_value(v) : absent;
}

double design_call(struct part *p, const char *expr, const struct design_state *s, const double *args, int nargs)
{
    double out = NAN;
    if (script_call(p->f->g->script, expr, s, args, nargs, &out, 1)) {
        part_fail(p, "%s: %s", expr, err_text());
        return NAN;
    }
    return out;
}

double portable_u(const char *name, uint32_t i)
{
    return portable_hash(crc32_of(0, name, strlen(name)), i);
}

double portable_hash(uint32_t crc, uint32_t i)
{
    uint32_t h = i * 2654435761U + crc;
    h ^= h >> 16;
    h *= 0x85ebca6bU;
    h ^= h >> 13;
    h *= 0xc2b2ae35U;
    h ^= h >> 16;
    return h / 4294967296.0 - 0.5;
}

/* ---- families and files --------------------------------------------------------------------------------------------------------- */

static const struct {
    const char *name;
    void (*check)(struct gfile *f); /* NULL: known, not built yet */
} families[] = {
    {"songunet_ddpmpp", check_network},
    {"songunet_ncsnpp", check_network},
    {"dhariwal", check_network},
    {"ect_loss", check_ect_loss},
    {"edm_loss", check_edm_loss},
    {"optim", check_optim},
    {"ema", check_ema},
    {"samplers", check_samplers},
    {"frechet", check_frechet},
    {"kd_prdc", check_kd_prdc},
    {"inception", check_inception},
    {"dinov2", check_dinov2},
    {"edm2", check_network},
    {"ct_cd_loss", check_ct_cd_loss},
};

static void list_unread(const struct gfile *f)
{
    for (int i = 0; i < st_count(f->st); i++) {
        const char *name = st_at(f->st, i)->name;
        if (!f->read[i] && strncmp(name, "stat/", 5) && !strstr(name, "/stat/"))
            printf("unread   %s  %s\n", f->name, name);
    }
}

static void check_family(struct gfile *f)
{
    struct part p;
    const char *family = st_meta(f->st, "family");
    int before = f->g->notyet;
    for (size_t i = 0; family && i < ARRAY_LEN(families); i++) {
        if (strcmp(families[i].name, family)) continue;
        if (!families[i].check) {
            part_not_yet(f, family, "family known, not built yet");
            return;
        }
        families[i].check(f);
        bool whole = f->g->notyet > before && !strcmp(family, "ect_loss"); /* another branch of it */
        if (!f->g->perturb && !whole) list_unread(f);
        return;
    }
    part_begin(&p, f, "family");
    if (family) part_fail(&p, "unknown family '%s'", family);
    else part_fail(&p, "no family in its metadata");
    part_end(&p);
}

static void check_file(struct golden *g, const char *path, const char *name)
{
    struct gfile f = {.g = g, .path = path, .name = name};
    if (st_open(&f.st, path)) {
        struct part p;
        part_begin(&p, &f, "file");
        part_fail(&p, "%s", err_text());
        part_end(&p);
        return;
    }
    f.read = mem_array((size_t)st_count(f.st) + 1, sizeof(bool));
    check_family(&f);
    mem_free(f.read);
    st_close(f.st);
}

static bool ends_with(const char *s, const char *end)
{
    size_t n = strlen(s), m = strlen(end);
    return n >= m && !strcmp(s + n - m, end);
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static int walk(struct golden *g, const char *dir, const char *shown)
{
    char **names = NULL, *expect = mem_printf("%s/expect.json", dir);
    int n = 0, found = 0;
    bool checkpoints = file_exists(expect);
    mem_free(expect);
    if (checkpoints) { /* a set of PyTorch files, good and bad, described by one list */
        check_checkpoints(g, dir, shown);
        return 1;
    }
    DIR *d = opendir(dir);
    if (!d) {
        fprintf(stderr, "golden: cannot open directory %s\n", dir);
        return 0;
    }
    for (struct dirent *e; (e = readdir(d));) {
        if (e->d_name[0] == '.') continue;
        names = mem_grow(names, (size_t)n * sizeof *names, (size_t)(n + 1) * sizeof *names);
        names[n++] = mem_strdup(e->d_name);
    }
    closedir(d);
    if (n) qsort(names, (size_t)n, sizeof *names, by_name);
    for (int i = 0; i < n; i++) {
        char *path = mem_printf("%s/%s", dir, names[i]),
             *name = mem_printf("%s%s%s", shown, *shown ? "/" : "", names[i]);
        struct stat st;
        if (!stat(path, &st)) {
            if (S_ISDIR(st.st_mode)) {
                found += walk(g, path, name);
            } else if (ends_with(name, ".safetensors")) {
                check_file(g, path, name);
                found++;
            } else if (ends_with(name, ".json")) {
                check_flops(g, path, name);
                found++;
            }
        }
        mem_free(path);
        mem_free(name);
        mem_free(names[i]);
    }
    mem_free(names);
    return found;
}

static int report(const struct golden *g)
{
    int missed = 0;
    for (int i = 0; g->perturb && i < g->nkinds; i++) {
        const struct golden_kind *k = &g->kinds[i];
        printf("%s  %s  %ld of %ld comparisons\n", k->missed ? "missed" : "caught", k->name, k->caught,
               k->caught + k->missed);
        missed += k->missed > 0;
    }
    if (g->perturb) printf("%d kinds caught, %d missed\n", g->nkinds - missed, missed);
    printf("%d passed, %d failed, %d not yet\n", g->passed, g->failed, g->notyet);
    return g->failed || missed;
}

static err_t golden_open(struct golden *g, const char *device, int threads)
{
    TRY(kernels_find(device, &g->k));
    TRY(g->k->open(&g->dev, device, threads));
    return script_open(&g->script, "golden", "local ect = require \"ect\"\n", NULL, 0, NULL);
}

int main(int argc, char **argv)
{
    struct golden g = {0};
    const char *dir = NULL, *device = "cpu";
    int threads = 0;
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--perturb")) g.perturb = true;
        else if (!strcmp(argv[i], "--device") && i + 1 < argc) device = argv[++i];
        else if (!strcmp(argv[i], "--threads") && i + 1 < argc) threads = atoi(argv[++i]);
        else if (argv[i][0] != '-' && !dir) dir = argv[i];
        else dir = "", argc = 0;
    }
    if (!dir || !*dir) {
        fprintf(stderr, "usage: golden DIR [--device SPEC] [--threads N] [--perturb]\n");
        return 2;
    }
    if (golden_open(&g, device, threads)) {
        fprintf(stderr, "golden: %s\n", err_text());
        return 1;
    }
    setvbuf(stdout, NULL, _IOLBF, 0);
    int found = walk(&g, dir, "");
    int rc = report(&g);
    if (!found) fprintf(stderr, "golden: no vectors in %s\n", dir);
    script_close(g.script);
    g.k->close(g.dev);
    return rc || !found;
}

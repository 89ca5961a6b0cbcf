/* Augmentation: what moves pixels equals an index permutation, everything else its formula; labels say which map it was; draws have their
 * distributions and depend on counters alone. */
#include "tests/test.h"

#include "core/augment.h"
#include "core/io/safetensors.h"
#include "core/rng.h"
#include "core/train_ckpt.h"
#include "tests/core/trainer.h"

static const struct kernels *k;
static struct kdev *dev;
static struct dataset *data;

enum { SIDE = 10, CHANNELS = 2, PER = SIDE * SIDE * CHANNELS };
static const double pi = 3.14159265358979323846;

static void apply(const struct augment_draw *d, const float *x, float *y, int h, int w, int c)
{
    double affine[6];
    uint8_t orient;
    float *ws = mem_array(augment_floats(h, w), sizeof *ws);
    augment_map(d, h, w, affine, &orient);
    k->augment(dev, x, affine, &orient, y, 1, h, w, c, ws);
    mem_free(ws);
}

static float *picture(void)
{
    float *x = mem_array(PER, sizeof *x);
    struct rng r = {.seed = 3, .purpose = RNG_TEST};
    for (int i = 0; i < PER; i++) x[i] = rng_normal(&r, 0, (uint32_t)i);
    return x;
}

static int reflected(int i)
{
    while (i < 0 || i >= SIDE) i = i < 0 ? -i : 2 * (SIDE - 1) - i;
    return i;
}

/* Turns, flips and shifts: the same bytes as moving pixels one by one. */
static void permutations(void **state)
{
    (void)state;
    float *x = picture(), *y = mem_array(PER, sizeof *y);
    static const int shifts[][2] = {{0, 0}, {1, 0}, {0, -2}, {3, 4}, {-13, 25}};
    for (int which = 0; which < 4 * 4 * 5; which++) {
        int quarter = which % 4, xflip = which / 4 % 2, yflip = which / 8 % 2;
        const int *shift = shifts[which / 16];
        struct augment_draw d = {.xflip = xflip, .yflip = yflip, .angle = quarter * pi / 2};
        if (quarter == 3) d.angle = -pi / 2;
        d.tx = shift[0] / 0.125 / SIDE;
        d.ty = shift[1] / 0.125 / SIDE;
        apply(&d, x, y, SIDE, SIDE, CHANNELS);
        for (int row = 0; row < SIDE; row++)
            for (int col = 0; col < SIDE; col++) {
                /* back: the shift, then the turn, then the flips; an image's reflections turn and flip with it */
                int u = reflected(col - shift[0]), v = reflected(row - shift[1]);
                for (int q = 0; q < quarter; q++) { /* (x, y) comes from (-y, x) */
                    int old = u;
                    u = SIDE - 1 - v;
                    v = old;
                }
                if (xflip) u = SIDE - 1 - u;
                if (yflip) v = SIDE - 1 - v;
                for (int c = 0; c < CHANNELS; c++)
                    assert_true(y[(row * SIDE + col) * CHANNELS + c] == x[(v * SIDE + u) * CHANNELS + c]);
            }
    }
    mem_free(x);
    mem_free(y);
}

static void zero_is_identity(void **state)
{
    (void)state;
    static const struct augment_draw none = {.xflip = false}, nearly = {.scale = 1e-9};
    float *x = picture(), *y = mem_array(PER, sizeof *y), labels[AUGMENT_LABELS];
    apply(&none, x, y, SIDE, SIDE, CHANNELS);
    assert_memory_equal(x, y, PER * sizeof *x);
    augment_labels(&none, labels);
    for (int i = 0; i < AUGMENT_LABELS; i++) assert_true(labels[i] == 0);
    apply(&nearly, x, y, SIDE, SIDE, CHANNELS); /* through the filters: the same but for rounding */
    for (int i = 0; i < PER; i++) assert_near(y[i], x[i], 3e-6);
    apply(&none, x, y, 4, 20, CHANNELS);
    assert_memory_equal(x, y, 4 * 20 * CHANNELS * sizeof *x);
    mem_free(x);
    mem_free(y);
}

/* The whole map from a place in the new image to one in the old: D (A p + b). */
static void whole_map(const struct augment_draw *d, int h, int w, double out[6])
{
    double a[6];
    uint8_t o;
    augment_map(d, h, w, a, &o);
    for (int i = 0; i < 3; i++) {
        double x = (o & 1 ? -1 : 1) * a[i], y = (o & 2 ? -1 : 1) * a[i + 3];
        out[i] = o & 4 ? y : x;
        out[i + 3] = o & 4 ? x : y;
    }
}

/* The map that nine labels name, forward (old to new) and then inverted: none of augment.c's arithmetic. */
static void map_of_labels(const float *v, int h, int w, double out[6])
{
    double stretch = hypot(v[5], v[6]), c = v[3] + 1, s = v[4], ax = 1, ay = 0;
    if (stretch > 0) {
        double sign = v[5] < 0 ? -1 : 1; /* axes within half a turn: the sign is the first one's */
        ax = sign * v[5] / stretch;
        ay = sign * v[6] / stretch;
        stretch *= sign;
    }
    double size = pow(2, 0.2 * v[2]), along = pow(2, 0.2 * stretch), across = 1 / along;
    /* new = stretch(turn(size flip old)) + shift; y points down, so an angle turns the other way than in the plane */
    double fx = v[0] > 0.5 ? -1 : 1, fy = v[1] > 0.5 ? -1 : 1;
    double turn[4] = {c, s, -s, c};
    double t[4] = {turn[0] * size * fx, turn[1] * size * fy, turn[2] * size * fx, turn[3] * size * fy};
    /* along the axis (ax, -ay) and across it */
    double p = along * ax * ax + across * ay * ay, q = -(along - across) * ax * ay,
           r = along * ay * ay + across * ax * ax;
    double m[4] = {p * t[0] + q * t[2], p * t[1] + q * t[3], q * t[0] + r * t[2], q * t[1] + r * t[3]};
    double det = m[0] * m[3] - m[1] * m[2], x = 0.125 * v[7] * w, y = 0.125 * v[8] * h;
    double inv[4] = {m[3] / det, -m[1] / det, -m[2] / det, m[0] / det};
    out[0] = inv[0];
    out[1] = inv[1];
    out[3] = inv[2];
    out[4] = inv[3];
    out[2] = -(inv[0] * x + inv[1] * y);
    out[5] = -(inv[2] * x + inv[3] * y);
}

static void labels_name_the_map(void **state)
{
    (void)state;
    struct augment a = {.p = 0.7, .on = {true, true, true, true, true, true}};
    int orients[8] = {0}, resampled = 0;
    for (uint32_t i = 0; i < 3000; i++) {
        int h = i % 3 ? 32 : 20, w = 32;
        struct augment_draw d;
        float labels[AUGMENT_LABELS];
        double got[6], want[6], rest[6];
        uint8_t orient;
        augment_drawn(&a, 11, 5, i, &d);
        augment_labels(&d, labels);
        whole_map(&d, h, w, got);
        map_of_labels(labels, h, w, want);
        for (int e = 0; e < 6; e++) assert_near(got[e], want[e], e % 3 == 2 ? 2e-4 : 3e-6);
        augment_map(&d, h, w, rest, &orient);
        orients[orient]++;
        resampled += rest[0] != 1;
        if (h == w)
            assert_true(rest[0] + rest[4] >=
                        fabs(rest[1] - rest[3]) - 1e-6); /* what is left turns at most 45 degrees */
    }
    for (int i = 0; i < 8; i++) assert_true(orients[i] > 100);
    assert_true(resampled > 2000);
}

struct moments {
    double mean, std;
    int zeros;
};
static struct moments moments(double (*f)(const struct augment_draw *d), const struct augment *a, int n)
{
    double sum = 0, square = 0;
    struct moments m = {0};
    int some = 0;
    for (int i = 0; i < n; i++) {
        struct augment_draw d;
        augment_drawn(a, 99, (uint32_t)(i / 1000), (uint32_t)(i % 1000), &d);
        double v = f(&d);
        m.zeros += v == 0;
        if (v == 0) continue;
        sum += v;
        square += v * v;
        some++;
    }
    m.mean = sum / some;
    m.std = sqrt(square / some - m.mean * m.mean);
    return m;
}
static double f_xflip(const struct augment_draw *d)
{
    return d->xflip;
}
static double f_yflip(const struct augment_draw *d)
{
    return d->yflip;
}
static double f_scale(const struct augment_draw *d)
{
    return d->scale;
}
static double f_angle(const struct augment_draw *d)
{
    return d->angle;
}
static double f_aniso(const struct augment_draw *d)
{
    return d->aniso;
}
static double f_axis(const struct augment_draw *d)
{
    return d->aniso_axis;
}
static double f_tx(const struct augment_draw *d)
{
    return d->tx;
}
static double f_ty(const struct augment_draw *d)
{
    return d->ty;
}
static double f_both(const struct augment_draw *d) /* independent: product of mean 0 */
{
    return d->tx * d->ty;
}

static void distributions(void **state)
{
    (void)state;
    enum { N = 40000 };
    static const double p = 0.25;
    static const struct {
        double (*f)(const struct augment_draw *d);
        double share, std; /* of draws that are not zero; 0: a flip */
    } want[] = {{f_xflip, 0.5, 0}, {f_yflip, p / 2, 0},
                {f_scale, p, 1},   {f_angle, p, 3.14159 / sqrt(3)},
                {f_aniso, p, 1},   {f_axis, p / 2, 3.14159 / sqrt(12)},
                {f_tx, p, 1},      {f_ty, p, 1},
                {f_both, p, 1}};
    struct augment a = {.p = p, .on = {true, true, true, true, true, true}};
    for (size_t i = 0; i < ARRAY_LEN(want); i++) {
        struct moments m = moments(want[i].f, &a, N);
        double n = N * want[i].share;
        assert_near(N - m.zeros, n, 4 * sqrt(N * want[i].share * (1 - want[i].share)));
        if (want[i].std == 0) continue;
        assert_near(m.mean, 0, 4.5 * want[i].std / sqrt(n));
        assert_near(m.std, want[i].std, (i == 8 ? 0.1 : 0.03) * want[i].std);
    }
    /* without a kind the others are drawn as before; with p = 0 nothing is */
    for (int kind = 0; kind < AUGMENT_KINDS; kind++) {
        struct augment less = a, off = a;
        less.on[kind] = false;
        off.p = 0;
        for (uint32_t i = 0; i < 200; i++) {
            struct augment_draw all, some, none;
            augment_drawn(&a, 1, 2, i, &all);
            augment_drawn(&less, 1, 2, i, &some);
            augment_drawn(&off, 1, 2, i, &none);
            if (kind == AUGMENT_XFLIP) all.xflip = false;
            if (kind == AUGMENT_YFLIP) all.yflip = false;
            if (kind == AUGMENT_SCALE) all.scale = 0;
            if (kind == AUGMENT_ROTATE) all.angle = 0;
            if (kind == AUGMENT_ANISO) all.aniso = all.aniso_axis = 0;
            if (kind == AUGMENT_TRANSLATE) all.tx = all.ty = 0;
            for (size_t f = 0; f < ARRAY_LEN(want); f++) {
                assert_true(want[f].f(&some) == want[f].f(&all));
                assert_true(want[f].f(&none) == 0);
            }
        }
    }
}

/* A smooth picture seen through the filters is the picture at the mapped places. */
static void smooth_picture(void **state)
{
    (void)state;
    enum { BIG = 32 };
    static const struct augment_draw draws[] = {{.angle = 0.5},
                                                {.angle = 2.2, .xflip = true},
                                                {.scale = 1.3},
                                                {.scale = -1.5, .tx = 0.31},
                                                {.aniso = 1.2, .aniso_axis = 0.7},
                                                {.tx = 0.3125, .ty = -0.171}, /* 1.25 pixels */
                                                {.scale = 0.5, .angle = -1, .aniso = -1, .aniso_axis = 1, .ty = 0.2}};
    float *x = mem_array(BIG * BIG, sizeof *x), *y = mem_array(BIG * BIG, sizeof *y);
    for (size_t n = 0; n < ARRAY_LEN(draws); n++) {
        double m[6], worst = 0, middle = (BIG - 1) / 2.0;
        whole_map(&draws[n], BIG, BIG, m);
        for (int pass = 0; pass < 2; pass++) {
            for (int i = 0; i < BIG * BIG; i++) {
                double px = i % BIG - middle, py = i / BIG - middle, sx = px, sy = py;
                if (pass) {
                    sx = m[0] * px + m[1] * py + m[2];
                    sy = m[3] * px + m[4] * py + m[5];
                }
                double v = exp(-((sx - 3) * (sx - 3) + (sy + 2) * (sy + 2)) / 30) -
                           0.7 * exp(-(sx * sx + (sy - 5) * (sy - 5)) / 12);
                bool inside = fabs(sx) < middle - 2 && fabs(sy) < middle - 2; /* beyond are reflections */
                if (pass && inside) worst = fmax(worst, fabs(y[i] - v));
                if (!pass) x[i] = (float)v;
            }
            if (!pass) apply(&draws[n], x, y, BIG, BIG, 1);
        }
        assert_true(worst > 1e-5 && worst < 0.01);
    }
    mem_free(x);
    mem_free(y);
}

/* ---- in the loop --------------------------------------------------------------------------------------------------------------- */

static double loss;
static void on_metric(void *ctx, const char *key, int64_t step, double value)
{
    (void)ctx;
    if (!strcmp(key, "loss") && step == 12) loss = value;
}

static double norm_of(const char *path, const char *name)
{
    struct st_file *f;
    double sum = 0;
    assert_ok(st_open(&f, path));
    const struct st_tensor *t = st_find(f, name);
    assert_non_null(t);
    double *x = mem_array(t->count, sizeof *x);
    assert_ok(st_read_f64(t, x, t->count));
    for (size_t i = 0; i < t->count; i++) sum += x[i] * x[i];
    mem_free(x);
    st_close(f);
    return sum;
}

static double train(struct spec *spec, double *labels_learn)
{
    char dir[256], path[320];
    struct toy toy = toy_default();
    struct design design = toy_design(&toy);
    struct observer o = {.metric = on_metric};
    struct train_result result;
    struct train_config c = {.spec = spec,
                             .design = &design,
                             .data = data,
                             .kernels = k,
                             .dev = dev,
                             .seed = 7,
                             .ckpt_dir = test_dir(dir, sizeof dir),
                             .observer = &o};
    toy.lr = 1e-5; /* rounding differs, so the paths part slowly */
    assert_ok(train_run(&c, &result));
    assert_int_equal(result.allocs_in_loop, 0);
    snprintf(path, sizeof path, "%s/step-000000012.safetensors", dir);
    if (labels_learn) *labels_learn = norm_of(path, "optim.m.model.map_augment.weight");
    return loss;
}

static void in_training(void **state)
{
    (void)state;
    struct spec spec;
    double without, with, learn;
    toy_spec(&spec);
    assert_ok(spec_set(&spec, "net.augment", "9"));
    without = train(&spec, &learn);
    assert_true(learn == 0); /* labels are zero: nothing reaches their weights */
    assert_ok(spec_set(&spec, "augment", "0.8"));
    with = train(&spec, &learn);
    assert_true(learn > 0);
    assert_true(fabs(with - without) > 1e-3 * fabs(without));
    static const char *const rows[] = {"3", "4", "1"};
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        assert_ok(spec_set(&spec, "micro_batch", rows[i]));
        assert_near(train(&spec, NULL), with, 1e-4 * fabs(with));
    }
    assert_ok(spec_set(&spec, "augment.transforms", "xflip"));
    double flips = train(&spec, &learn);
    assert_true(learn > 0 && fabs(flips - with) > 1e-3 * fabs(with));
}

static void refused(void **state)
{
    (void)state;
    struct spec spec;
    struct toy toy = toy_default();
    struct design design = toy_design(&toy);
    struct train_result result;
    struct train_config c = {.spec = &spec, .design = &design, .data = data, .kernels = k, .dev = dev, .seed = 7};
    toy_spec(&spec);
    assert_ok(spec_set(&spec, "augment", "0.1"));
    assert_err(ERR_USAGE, train_run(&c, &result));
    assert_has(err_text(), "net.augment = 9");
    assert_err(ERR_USAGE, spec_set(&spec, "augment", "1.1"));
    assert_err(ERR_USAGE, spec_set(&spec, "augment.transforms", "xflip,rotat"));
    assert_has(err_text(), "rotate");
    struct augmenter *a;
    static const char names[][64] = {"xflip", "shear"};
    assert_err(ERR_USAGE, augmenter_new(&a, 1, 2, names, k, dev, 4, 8, 8, 1));
    assert_has(err_text(), "shear");
}

static int open_all(void **state)
{
    (void)state;
    data = toy_data();
    return kernels_find("cpu", &k) || k->open(&dev, "cpu", 2) ? -1 : 0;
}
static int close_all(void **state)
{
    (void)state;
    toy_data_free(data);
    k->close(dev);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(permutations),  cmocka_unit_test(zero_is_identity), cmocka_unit_test(labels_name_the_map),
        cmocka_unit_test(distributions), cmocka_unit_test(smooth_picture),   cmocka_unit_test(in_training),
        cmocka_unit_test(refused),
    };
    return cmocka_run_group_tests(tests, open_all, close_all);
}

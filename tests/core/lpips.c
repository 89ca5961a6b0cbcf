/* LPIPS on a VGG16 of a few channels: values against the definition written again in double, gradients against differences of that, from a
 * file with the published names; grey images, resizing, both poolings, batches larger than the program's own. */
#include <unistd.h>

#include "core/io/safetensors.h"
#include "core/metrics/lpips.h"
#include "core/rng.h"
#include "tests/test.h"

enum { STAGES = 5, CONVS = 13, N = 5 };
static const int width[STAGES] = {3, 4, 5, 2, 6}, depth[STAGES] = {2, 2, 3, 3, 3};
static const int published[CONVS] = {0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28};
static const struct kernels *k;
static struct kdev *dev;
static char path[] = "/tmp/ect-lpips-XXXXXX";

static double uniform(uint16_t layer, uint32_t e)
{
    struct rng r = {.seed = 21, .purpose = RNG_TEST, .layer = layer};
    return 2 * rng_uniform(&r, 0, e) - 1;
}
static int stage_of(int conv)
{
    int s = 0;
    while (conv >= depth[s]) conv -= depth[s++];
    return s;
}
static int in_of(int conv)
{
    return conv == 0 ? 3 : width[stage_of(conv - 1)];
}
/* weights large enough that features differ, biases that keep some ReLUs open */
static double weight_at(int conv, int o, int c, int r, int s)
{
    return 1.2 * uniform((uint16_t)conv, (uint32_t)(((o * in_of(conv) + c) * 3 + r) * 3 + s)) / sqrt(in_of(conv));
}
static double bias_at(int conv, int o)
{
    return 0.3 * uniform((uint16_t)(50 + conv), (uint32_t)o);
}
static double lin_at(int s, int c)
{
    return 0.6 + 0.5 * uniform((uint16_t)(100 + s), (uint32_t)c);
}

static void add(struct st_writer *w, const char *name, int ndim, const int64_t *dims, const float *v)
{
    st_writer_add(w, name, ST_F32, ndim, dims, v);
}

/* skip: a convolution to leave out; -1: none */
static void file_write(int skip)
{
    struct st_writer *w = st_writer_new();
    char name[64];
    float v[6 * 6 * 9];
    for (int i = 0; i < CONVS; i++) {
        int out = width[stage_of(i)], in = in_of(i);
        if (i == skip) continue;
        for (int j = 0; j < out * in * 9; j++) v[j] = (float)weight_at(i, j / (in * 9), j / 9 % in, j / 3 % 3, j % 3);
        snprintf(name, sizeof name, "features.%d.weight", published[i]);
        add(w, name, 4, (int64_t[]){out, in, 3, 3}, v);
        for (int j = 0; j < out; j++) v[j] = (float)bias_at(i, j);
        snprintf(name, sizeof name, "features.%d.bias", published[i]);
        add(w, name, 1, (int64_t[]){out}, v);
    }
    for (int s = 0; s < STAGES; s++) {
        for (int j = 0; j < width[s]; j++) v[j] = (float)lin_at(s, j);
        snprintf(name, sizeof name, s % 2 ? "lin%d.weight" : "lin%d.model.1.weight", s);
        add(w, name, 4, (int64_t[]){1, width[s], 1, 1}, v);
    }
    assert_ok(st_writer_save(w, path));
    st_writer_free(w);
}

/* ---- the definition, in double --------------------------------------------------------------------------------------- */

struct image {
    int h, w, c;
    double *v; /* HWC */
};

static struct image image_new(int h, int w, int c)
{
    return (struct image){h, w, c, mem_array((size_t)(h * w * c), sizeof(double))};
}

static struct image resized(const struct image *x, int side)
{
    struct image y = image_new(side, side, x->c);
    for (int i = 0; i < side; i++)
        for (int j = 0; j < side; j++) {
            double v = fmin(fmax((i + 0.5) * x->h / side - 0.5, 0), x->h - 1),
                   u = fmin(fmax((j + 0.5) * x->w / side - 0.5, 0), x->w - 1);
            int a = (int)v, b = (int)u, a1 = a + (a + 1 < x->h), b1 = b + (b + 1 < x->w);
            for (int c = 0; c < x->c; c++) {
#define AT(r, s) x->v[((r)*x->w + (s)) * x->c + c]
                y.v[(i * side + j) * x->c + c] = (1 - v + a) * ((1 - u + b) * AT(a, b) + (u - b) * AT(a, b1)) +
                                                 (v - a) * ((1 - u + b) * AT(a1, b) + (u - b) * AT(a1, b1));
#undef AT
            }
        }
    return y;
}

static struct image scaled(const struct image *x)
{
    static const double shift[3] = {-.030, -.088, -.188}, scale[3] = {.458, .448, .450};
    struct image y = image_new(x->h, x->w, 3);
    for (int i = 0; i < x->h * x->w; i++)
        for (int c = 0; c < 3; c++) y.v[i * 3 + c] = (x->v[i * x->c + (x->c == 1 ? 0 : c)] - shift[c]) / scale[c];
    return y;
}

static struct image convolved(const struct image *x, int conv)
{
    struct image y = image_new(x->h, x->w, width[stage_of(conv)]);
    for (int i = 0; i < x->h; i++)
        for (int j = 0; j < x->w; j++)
            for (int o = 0; o < y.c; o++) {
                double sum = (float)bias_at(conv, o);
                for (int r = 0; r < 9; r++) {
                    int a = i + r / 3 - 1, b = j + r % 3 - 1;
                    if (a < 0 || a >= x->h || b < 0 || b >= x->w) continue;
                    for (int c = 0; c < x->c; c++)
                        sum += x->v[(a * x->w + b) * x->c + c] * (float)weight_at(conv, o, c, r / 3, r % 3);
                }
                y.v[(i * y.w + j) * y.c + o] = sum > 0 ? sum : 0;
            }
    return y;
}

static struct image halved(const struct image *x, bool mean)
{
    struct image y = image_new(x->h / 2, x->w / 2, x->c);
    for (int i = 0; i < y.h; i++)
        for (int j = 0; j < y.w; j++)
            for (int c = 0; c < x->c; c++) {
                double most = 0, sum = 0;
                for (int t = 0; t < 4; t++) {
                    double v = x->v[((2 * i + t / 2) * x->w + 2 * j + t % 2) * x->c + c];
                    sum += v;
                    most = fmax(most, v);
                }
                y.v[(i * y.w + j) * y.c + c] = mean ? sum / 4 : most;
            }
    return y;
}

static struct image next(struct image *x, struct image y)
{
    mem_free(x->v);
    return y;
}

static double length_at(const struct image *x, int pixel)
{
    double sum = 0;
    for (int c = 0; c < x->c; c++) sum += x->v[pixel * x->c + c] * x->v[pixel * x->c + c];
    return sqrt(sum) + 1e-10;
}

static double by_hand(const double *a, const double *b, int h, int w, int c, int side, bool mean)
{
    struct image x[2];
    double total = 0;
    for (int i = 0; i < 2; i++) {
        x[i] = image_new(h, w, c);
        memcpy(x[i].v, i ? b : a, (size_t)(h * w * c) * sizeof(double));
        if (side) x[i] = next(&x[i], resized(&x[i], side));
        x[i] = next(&x[i], scaled(&x[i]));
    }
    for (int s = 0, conv = 0; s < STAGES; s++) {
        for (int i = 0; s && i < 2; i++) x[i] = next(&x[i], halved(&x[i], mean));
        for (int j = 0; j < depth[s]; j++, conv++)
            for (int i = 0; i < 2; i++) x[i] = next(&x[i], convolved(&x[i], conv));
        int pixels = x[0].h * x[0].w;
        for (int p = 0; p < pixels; p++)
            for (int q = 0; q < x[0].c; q++) {
                double u = x[0].v[p * x[0].c + q] / length_at(&x[0], p),
                       v = x[1].v[p * x[1].c + q] / length_at(&x[1], p);
                total += (float)lin_at(s, q) * (u - v) * (u - v) / pixels;
            }
    }
    mem_free(x[0].v);
    mem_free(x[1].v);
    return total;
}

/* ---- the check ----------------------------------------------------------------------------------------------------------- */

static void check(int h, int w, int c, int side, enum pool_kind pool)
{
    struct lpips *l;
    size_t per = (size_t)(h * w * c);
    double *x = mem_array(2 * N * per, sizeof *x), *y = x + N * per, value[N];
    float *fx = mem_array(3 * N * per, sizeof *fx), *fy = fx + N * per, *grad = fy + N * per;
    assert_ok(
        lpips_new(&l, h, w, c, N, &(struct lpips_opts){.pool = pool, .path = path, .side = side ? side : -1}, k, dev));
    for (size_t i = 0; i < 2 * N * per; i++) x[i] = fx[i] = (float)uniform(200, (uint32_t)i);
    lpips_run(l, fx, fy, 1, value, grad); /* packs the weights */
    uint64_t allocations = mem_count();
    lpips_run(l, fx, fy, N, value, grad);
    assert_int_equal(mem_count(), allocations);
    for (int i = 0; i < N; i++) {
        double want = by_hand(x + (size_t)i * per, y + (size_t)i * per, h, w, c, side, pool == POOL_MEAN);
        assert_true(want > 0.01); /* features are alive */
        assert_near(value[i], want, 2e-6 * want + 1e-7);
    }
    for (int i = 0; i < N; i += N - 1) { /* one of each of the two calls inside */
        double *at = x + (size_t)i * per, along = 0, size = 0, v[4], move[2] = {2e-5, 1e-5};
        double *dir = mem_array(per, sizeof *dir), *start = mem_array(per, sizeof *start);
        memcpy(start, at, per * sizeof *at);
        for (size_t j = 0; j < per; j++) dir[j] = uniform(201, (uint32_t)j);
        for (size_t j = 0; j < per; j++)
            along += dir[j] * grad[(size_t)i * per + j], size += fabs(dir[j] * grad[(size_t)i * per + j]);
        for (int m = 0; m < 4; m++) {
            for (size_t j = 0; j < per; j++) at[j] = start[j] + (m % 2 ? -1 : 1) * move[m / 2] * dir[j];
            v[m] = by_hand(at, y + (size_t)i * per, h, w, c, side, pool == POOL_MEAN);
        }
        memcpy(at, start, per * sizeof *at);
        double wide = (v[0] - v[1]) / (2 * move[0]), narrow = (v[2] - v[3]) / (2 * move[1]);
        assert_near(along, narrow, fabs(wide - narrow) + 2e-4 * size + 1e-6);
        mem_free(dir);
        mem_free(start);
    }
    double alone[1], same[1];
    lpips_run(l, fx + per, fy + per, 1, alone, NULL);
    assert_near(alone[0], value[1], 0);
    lpips_run(l, fx, fx, 1, same, grad); /* equal images: distance and gradient are 0 */
    assert_near(same[0], 0, 0);
    for (size_t j = 0; j < per; j++) assert_near(grad[j], 0, 0);
    assert_true(lpips_flops(l, true) > lpips_flops(l, false) && lpips_flops(l, false) > 0);
    lpips_free(l);
    mem_free(x);
    mem_free(fx);
}

static void values(void **s)
{
    (void)s;
    check(19, 17, 3, 0, POOL_MAX);
    check(18, 16, 3, 0, POOL_MEAN);
    check(8, 9, 3, 20, POOL_MEAN);
    check(8, 8, 1, 16, POOL_MAX);
}

/* The rule of the published training code: 224 pixels where there are fewer than 256. */
static void resize_rule(void **s)
{
    (void)s;
    struct lpips *rule, *side, *plain, *big;
    assert_ok(lpips_new(&rule, 8, 8, 1, 1, &(struct lpips_opts){.path = path, .pool = POOL_MEAN}, k, dev));
    assert_ok(lpips_new(&side, 8, 8, 1, 1, &(struct lpips_opts){.path = path, .pool = POOL_MEAN, .side = 224}, k, dev));
    assert_ok(lpips_new(&plain, 8, 8, 1, 1, &(struct lpips_opts){.path = path, .pool = POOL_MEAN, .side = 32}, k, dev));
    assert_ok(lpips_new(&big, 16, 256, 1, 1, &(struct lpips_opts){.path = path, .pool = POOL_MEAN}, k, dev));
    assert_string_equal(lpips_sha(rule), lpips_sha(side));
    assert_string_not_equal(lpips_sha(rule), lpips_sha(plain));
    assert_true(lpips_flops(rule, true) == lpips_flops(side, true));
    assert_near(lpips_flops(big, true) / lpips_flops(plain, true), 4, 1e-9); /* left as it is: 16 x 256 */
    lpips_free(rule);
    lpips_free(side);
    lpips_free(plain);
    lpips_free(big);
}

static void refusals(void **s)
{
    (void)s;
    struct lpips *l;
    setenv("ECT_WEIGHTS", "/nonexistent", 1);
    assert_err(ERR_NO_DATA, lpips_new(&l, 8, 8, 3, 1, NULL, k, dev));
    assert_has(err_text(), "ect weights get lpips-vgg");
    assert_null(l);
    file_write(7);
    assert_err(ERR_NO_DATA, lpips_new(&l, 8, 8, 3, 1, &(struct lpips_opts){.path = path}, k, dev));
    assert_has(err_text(), "features.17.weight");
    file_write(-1);
    assert_err(ERR_USAGE, lpips_new(&l, 8, 8, 2, 1, &(struct lpips_opts){.path = path}, k, dev));
    assert_err(ERR_USAGE, lpips_new(&l, 8, 8, 3, 1, &(struct lpips_opts){.path = path, .side = -1}, k, dev));
}

static int setup(void **s)
{
    (void)s;
    int fd = mkstemp(path);
    if (fd < 0) return 1;
    close(fd);
    file_write(-1);
    return kernels_find("cpu", &k) || k->open(&dev, "cpu", 2);
}

static int teardown(void **s)
{
    (void)s;
    k->close(dev);
    return unlink(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(values), cmocka_unit_test(resize_rule),
                                       cmocka_unit_test(refusals)};
    return cmocka_run_group_tests(tests, setup, teardown);
}

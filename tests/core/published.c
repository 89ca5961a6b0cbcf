/* Extractors with published weights: DINOv2 of a few channels, with both kinds of MLP, against its definition in double; the full path of FID's
 * Inception from a weights file to features; files that are not what their name says. */
#include <unistd.h>

#include "core/io/safetensors.h"
#include "core/metrics/features.h"
#include "core/metrics/published.h"
#include "core/metrics/weights.h"
#include "core/nets/features.h"
#include "core/rng.h"
#include "tests/test.h"

static const struct kernels *k;
static struct kdev *dev;
static char dir[] = "/tmp/ect-weights-XXXXXX";

/* A value for element i of the tensor of this name. */
static double value(const char *name, size_t i)
{
    bool norm = strstr(name, "norm") && strstr(name, "weight"), flat = strstr(name, "bias") || strstr(name, "token");
    double u = portable_uniform(name, (uint32_t)i);
    if (norm) return (float)(1 + 0.4 * u);
    if (strstr(name, "gamma")) return (float)(0.5 + 0.6 * u);
    return (float)(flat || strstr(name, "pos_embed") ? 0.6 * u : strstr(name, "patch") ? 0.2 * u : u);
}
static err_t value_get(void *ctx, const char *name, float *out, size_t count)
{
    (void)ctx;
    for (size_t i = 0; i < count; i++) out[i] = (float)value(name, i);
    return ERR_OK;
}

/* ---- DINOv2 in double --------------------------------------------------------------------------------------------------------- */

enum { TOKENS = DINOV2_TOKENS, DIM = 8, HEADS = 2, DEPTH = 2, CH = DIM / HEADS, TRAINED = 19 };

/* The tensor's first n values, computed once. */
static const double *tensor(int block, const char *name, size_t n)
{
    static struct {
        char name[96];
        double *v;
    } known[128];
    char full[96];
    int i = 0;
    if (block < 0) snprintf(full, sizeof full, "%s", name);
    else snprintf(full, sizeof full, "blocks.%d.%s", block, name);
    while (known[i].v && strcmp(known[i].name, full) != 0) i++;
    if (known[i].v) return known[i].v;
    static double room[200000];
    static size_t used;
    assert_true(used + n <= ARRAY_LEN(room));
    strcpy(known[i].name, full);
    known[i].v = room + used;
    used += n;
    for (size_t j = 0; j < n; j++) known[i].v[j] = value(full, j);
    return known[i].v;
}
static void norm(const double *x, int block, const char *w, const char *b, double *y)
{
    double mean = 0, var = 0;
    const double *gamma = tensor(block, w, DIM), *beta = tensor(block, b, DIM);
    for (int c = 0; c < DIM; c++) mean += x[c] / DIM;
    for (int c = 0; c < DIM; c++) var += (x[c] - mean) * (x[c] - mean) / DIM;
    for (int c = 0; c < DIM; c++) y[c] = (x[c] - mean) / sqrt(var + 1e-6) * gamma[c] + beta[c];
}
static void linear(const double *x, int in, int out, int block, const char *w, const char *b, double *y)
{
    const double *weight = tensor(block, w, (size_t)(in * out)), *bias = tensor(block, b, (size_t)out);
    for (int o = 0; o < out; o++) {
        y[o] = bias[o];
        for (int i = 0; i < in; i++) y[o] += x[i] * weight[o * in + i];
    }
}

static void attention(double (*x)[DIM], int block)
{
    static double qkv[TOKENS][3 * DIM];
    for (int t = 0; t < TOKENS; t++) {
        double y[DIM];
        norm(x[t], block, "norm1.weight", "norm1.bias", y);
        linear(y, DIM, 3 * DIM, block, "attn.qkv.weight", "attn.qkv.bias", qkv[t]);
    }
    const double *scale = tensor(block, "ls1.gamma", DIM);
    for (int t = 0; t < TOKENS; t++) {
        double y[DIM] = {0}, z[DIM];
        for (int h = 0; h < HEADS; h++) {
            double e[TOKENS], total = 0;
            for (int j = 0; j < TOKENS; j++) {
                double dot = 0;
                for (int c = 0; c < CH; c++) dot += qkv[t][h * CH + c] * qkv[j][DIM + h * CH + c];
                total += e[j] = exp(dot / sqrt(CH));
            }
            for (int j = 0; j < TOKENS; j++)
                for (int c = 0; c < CH; c++) y[h * CH + c] += e[j] / total * qkv[j][2 * DIM + h * CH + c];
        }
        linear(y, DIM, DIM, block, "attn.proj.weight", "attn.proj.bias", z);
        for (int c = 0; c < DIM; c++) x[t][c] += z[c] * scale[c];
    }
}

static void mlp(double *x, int block, bool swiglu, int hidden)
{
    double y[DIM], z[DIM], *u = mem_array((size_t)(2 * hidden), sizeof *u);
    norm(x, block, "norm2.weight", "norm2.bias", y);
    if (swiglu) {
        linear(y, DIM, 2 * hidden, block, "mlp.w12.weight", "mlp.w12.bias", u);
        for (int i = 0; i < hidden; i++) u[i] = u[i] / (1 + exp(-u[i])) * u[hidden + i];
        linear(u, hidden, DIM, block, "mlp.w3.weight", "mlp.w3.bias", z);
    } else {
        linear(y, DIM, hidden, block, "mlp.fc1.weight", "mlp.fc1.bias", u);
        for (int i = 0; i < hidden; i++) u[i] = u[i] * 0.5 * (1 + erf(u[i] / sqrt(2)));
        linear(u, hidden, DIM, block, "mlp.fc2.weight", "mlp.fc2.bias", z);
    }
    const double *scale = tensor(block, "ls2.gamma", DIM);
    for (int c = 0; c < DIM; c++) x[c] += z[c] * scale[c];
    mem_free(u);
}

/* torch's bicubic of the position table, a = -0.75, scale 16.1 / side */
static double cubic(double d)
{
    d = fabs(d);
    if (d <= 1) return (1.25 * d - 2.25) * d * d + 1;
    return d < 2 ? ((-0.75 * d + 3.75) * d - 6) * d + 3 : 0;
}
static double position(int y, int x, size_t c)
{
    double v = (y + 0.5) * TRAINED / 16.1 - 0.5, u = (x + 0.5) * TRAINED / 16.1 - 0.5, sum = 0;
    for (int i = (int)floor(v) - 1; i <= (int)floor(v) + 2; i++)
        for (int j = (int)floor(u) - 1; j <= (int)floor(u) + 2; j++) {
            int a = i < 0 ? 0 : i >= TRAINED ? TRAINED - 1 : i, b = j < 0 ? 0 : j >= TRAINED ? TRAINED - 1 : j;
            sum += cubic(v - i) * cubic(u - j) *
                   tensor(-1, "pos_embed", (1 + TRAINED * TRAINED) * DIM)[(size_t)(1 + a * TRAINED + b) * DIM + c];
        }
    return sum;
}

static void by_hand(const float *chw, bool swiglu, int hidden, double *out)
{
    static double x[TOKENS][DIM];
    for (size_t c = 0; c < DIM; c++) x[0][c] = value("cls_token", c) + value("pos_embed", c);
    const double *patch = tensor(-1, "patch_embed.proj.weight", DIM * 588);
    for (int t = 0; t < 256; t++)
        for (size_t c = 0; c < DIM; c++) {
            double sum = value("patch_embed.proj.bias", c) + position(t / 16, t % 16, c);
            for (size_t i = 0; i < 588; i++)
                sum += patch[c * 588 + i] * chw[i / 196 * 224 * 224 + ((size_t)(t / 16) * 14 + i / 14 % 14) * 224 +
                                                (size_t)(t % 16) * 14 + i % 14];
            x[t + 1][c] = sum;
        }
    for (int b = 0; b < DEPTH; b++) {
        attention(x, b);
        for (int t = 0; t < TOKENS; t++) mlp(x[t], b, swiglu, hidden);
    }
    norm(x[0], -1, "norm.weight", "norm.bias", out);
}

static void dinov2(void **s)
{
    (void)s;
    float *chw = mem_array(3 * 224 * 224, sizeof *chw), *patches = mem_array((size_t)TOKENS * 588, sizeof *patches);
    struct rng r = {.seed = 4, .purpose = RNG_TEST};
    for (uint32_t i = 0; i < 3 * 224 * 224; i++) chw[i] = (float)(3 * rng_uniform(&r, 0, i) - 1.5);
    for (int swiglu = 0; swiglu < 2; swiglu++) {
        struct dinov2_config c = {.dim = DIM, .heads = HEADS, .depth = DEPTH, .swiglu = swiglu, .trained = TRAINED};
        struct tensor_source source = {value_get, NULL};
        struct graph *g = graph_new();
        struct params *w;
        struct program *p;
        double want[DIM];
        assert_int_equal(dinov2_hidden(&c), swiglu ? 24 : 32);
        dinov2_build(g, &c);
        assert_ok(params_new(&w, g, k, dev));
        assert_ok(dinov2_load(g, w, &c, &source));
        assert_ok(program_new(&p, g, k, dev, &(struct program_opts){.batch = 2}));
        dinov2_patches(chw, patches);
        memcpy(program_input(p, "patches") + TOKENS * 588, patches,
               TOKENS * 588 * sizeof *patches); /* the second of two */
        program_forward(p, w, &(struct run_ctx){0});
        by_hand(chw, swiglu, dinov2_hidden(&c), want);
        for (int i = 0; i < DIM; i++) assert_near(program_output(p, "features")[DIM + i], want[i], 2e-5);
        program_free(p);
        params_free(w);
        graph_free(g);
    }
    struct dinov2_config giant = {.dim = 1536, .swiglu = true}, large = {.dim = 1024};
    assert_int_equal(dinov2_hidden(&giant), 4096);
    assert_int_equal(dinov2_hidden(&large), 4096);
    mem_free(chw);
    mem_free(patches);
}

/* ---- files --------------------------------------------------------------------------------------------------------------------- */

static char *file_of(const char *name)
{
    return mem_printf("%s/%s.safetensors", dir, name);
}

/* All tensors of FID's Inception, by a formula, so that the network is alive. */
static void inception_write(void)
{
    struct graph *g = graph_new();
    struct st_writer *w = st_writer_new();
    inception_build(g, 8, 8, false);
    for (int i = 0; i < graph_nparams(g); i++) {
        const struct param_info *p = graph_param_info(g, i);
        if (p->ndim != 4 || p->buffer) continue;
        char name[128];
        int stem = (int)(strlen(p->name) - strlen(".conv.weight"));
        size_t out = (size_t)p->dims[0], window = p->count / out;
        float *v = mem_array(p->count, sizeof *v);
        uint32_t h = (uint32_t)i * 40503u + 1;
        for (size_t j = 0; j < p->count; j++) {
            h = h * 1664525u + 1013904223u;
            v[j] = (float)((h / 4294967296.0 - 0.5) * 2 * sqrt(6.0 / (double)window));
        }
        st_writer_add(w, p->name, ST_F32, 4, (int64_t[]){p->dims[0], p->dims[1], p->dims[2], p->dims[3]}, v);
        static const char *const part[] = {"weight", "bias", "running_mean", "running_var"};
        for (int q = 0; q < 4; q++) {
            snprintf(name, sizeof name, "%.*s.bn.%s", stem, p->name, part[q]);
            for (size_t j = 0; j < out; j++) v[j] = (float)((q % 3 == 0) + 0.4 * portable_uniform(name, (uint32_t)j));
            st_writer_add(w, name, ST_F32, 1, (int64_t[]){p->dims[0]}, v);
        }
        mem_free(v);
    }
    char *path = file_of("inception");
    assert_ok(st_writer_save(w, path));
    mem_free(path);
    st_writer_free(w);
    graph_free(g);
}

/* From uint8 to features: alone or together the same, grey as its own repetition; the two resizing paths differ and have other hashes. */
static void inception(void **s)
{
    (void)s;
    enum { N = 5, W = 12, H = 10 };
    static uint8_t grey[N * W * H], rgb[N * W * H * 3];
    static float f[N * 2048], one[2048], colour[2048];
    char sha[3][SHA256_TEXT];
    struct extractor *x;
    struct rng r = {.seed = 5, .purpose = RNG_TEST};
    inception_write();
    char *written = file_of("inception");
    assert_ok(published_check("inception", written, k, dev));
    mem_free(written);
    for (uint32_t i = 0; i < N * W * H; i++)
        grey[i] = rgb[3 * i] = rgb[3 * i + 1] = rgb[3 * i + 2] = (uint8_t)rng_bits(&r, 0, i);
    if (getenv("ECT_CHECK")) { /* one image takes a minute under sanitizers: opening and closing only */
        assert_ok(extractor_new(&x, "inception", H, W, 1, 1, k, dev));
        extractor_free(x);
        return;
    }
    assert_ok(extractor_new(&x, "inception", H, W, 1, N, k, dev));
    assert_int_equal(extractor_dim(x), 2048);
    assert_ok(extractor_run(x, grey, N, f)); /* more than the network takes at once */
    assert_ok(extractor_run(x, grey + (ptrdiff_t)4 * W * H, 1, one));
    assert_memory_equal(f + (ptrdiff_t)4 * 2048, one, sizeof one);
    double power = 0, apart = 0;
    for (int i = 0; i < 2048; i++) power += (double)one[i] * one[i], apart += fabs((double)one[i] - f[i]);
    assert_true(power > 1 && apart > 1);
    extractor_free(x);
    assert_ok(extractor_new(&x, "inception", H, W, 3, 1, k, dev));
    assert_ok(extractor_run(x, rgb + (ptrdiff_t)4 * W * H * 3, 1, colour));
    assert_memory_equal(one, colour, sizeof one);
    extractor_free(x);
    assert_ok(extractor_new(&x, "inception-tf", H, W, 3, 1, k, dev));
    assert_ok(extractor_run(x, rgb + (ptrdiff_t)4 * W * H * 3, 1, colour));
    apart = 0;
    for (int i = 0; i < 2048; i++) apart += fabs((double)one[i] - colour[i]);
    assert_true(apart > 1);
    extractor_free(x);
    assert_ok(extractor_identity("inception", H, W, 3, sha[0]));
    assert_ok(extractor_identity("inception-tf", H, W, 3, sha[1]));
    assert_string_not_equal(sha[0], sha[1]);
    assert_string_equal(extractor_resize("inception-tf"), "TensorFlow 1 bilinear 299, by corners");
    assert_err(ERR_USAGE, extractor_new(&x, "inception", H, W, 2, 1, k, dev));
    /* another file is another extractor */
    char *path = file_of("inception"), *data;
    size_t n;
    assert_ok(file_read(path, 0, &data, &n));
    data[n - 1] ^= 1;
    assert_ok(file_write_atomic(path, data, n));
    assert_ok(extractor_identity("inception", H, W, 3, sha[2]));
    assert_string_not_equal(sha[0], sha[2]);
    mem_free(path);
    mem_free(data);
}

static void small_file(const char *name, const char *tensor, int ndim, const int64_t *dims)
{
    float v[64] = {0};
    char *path = file_of(name);
    struct st_writer *w = st_writer_new();
    st_writer_add(w, tensor, ST_F32, ndim, dims, v);
    assert_ok(st_writer_save(w, path));
    st_writer_free(w);
    mem_free(path);
}

static void wrong_files(void **s)
{
    (void)s;
    struct extractor *x;
    assert_err(ERR_NO_DATA, extractor_new(&x, "dinov2-vitl14", 8, 8, 3, 1, k, dev));
    assert_has(err_text(), "ect weights get dinov2-vitl14");
    assert_null(x);
    small_file("dinov2-vits14", "cls_token", 3, (int64_t[]){1, 1, 16});
    assert_err(ERR_FORMAT, extractor_new(&x, "dinov2-vits14", 8, 8, 3, 1, k, dev));
    assert_has(err_text(), "16");
    small_file("dinov2-vits14", "weight", 1, (int64_t[]){3});
    assert_err(ERR_FORMAT, extractor_new(&x, "dinov2-vits14", 8, 8, 3, 1, k, dev));
    small_file("inception", "Conv2d_1a_3x3.conv.weight", 4, (int64_t[]){2, 3, 3, 3});
    assert_err(ERR_FORMAT, extractor_new(&x, "inception", 8, 8, 3, 1, k, dev));
    assert_has(err_text(), "Conv2d_1a_3x3.conv.weight");
    char *path = file_of("inception");
    assert_err(ERR_FORMAT, published_check("inception", path, k, dev));
    assert_err(ERR_FORMAT, published_check("dinov2-vitl14", path, k, dev));
    assert_has(err_text(), "cls_token");
    assert_ok(file_write_atomic(path, "nothing", 7));
    assert_err(ERR_FORMAT, extractor_new(&x, "inception", 8, 8, 3, 1, k, dev));
    mem_free(path);
}

static int setup(void **s)
{
    (void)s;
    if (!mkdtemp(dir)) return 1;
    setenv("ECT_WEIGHTS", dir, 1);
    return kernels_find("cpu", &k) || k->open(&dev, "cpu", 2);
}

static int teardown(void **s)
{
    (void)s;
    char cmd[64];
    k->close(dev);
    snprintf(cmd, sizeof cmd, "rm -rf %s", dir);
    return system(cmd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(dinov2), cmocka_unit_test(inception),
                                       cmocka_unit_test(wrong_files)};
    return cmocka_run_group_tests(tests, setup, teardown);
}

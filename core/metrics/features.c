/* Features. Published networks are in published.c; here are the two that need no weights. "pixel" is the image itself. "random" is the network written down in `layers` below: what it computes is
 * fixed by this text and the weight formula, and a hash of both names it, so a changed extractor can never pass for
 * the old one. */
#include "core/metrics/features.h"
#include "core/metrics/classifier.h"
#include "core/metrics/published.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#include "core/ops.h"

struct extractor {
    int h, w, c, batch, dim;
    char sha[SHA256_TEXT];
    const struct kernels *k;
    struct kdev *dev;
    struct graph *graph; /* NULL: pixels */
    struct params *params;
    struct program *prog;
    float *host;                 /* [batch, h, w, c] */
    struct published *published; /* in place of graph, params, prog; so is */
    struct classifier *classifier;
};

/* ---- the portable weight formula --------------------------------------------------------------------------------- */

static double hash_uniform(uint32_t crc, uint32_t i)
{
    uint32_t h = i * 2654435761u + crc;
    h ^= h >> 16;
    h *= 0x85ebca6bu;
    h ^= h >> 13;
    h *= 0xc2b2ae35u;
    h ^= h >> 16;
    return h / 4294967296.0 - 0.5;
}

double portable_uniform(const char *name, uint32_t i)
{
    return hash_uniform(crc32_of(0, name, strlen(name)), i);
}

float portable_weight(const char *name, uint32_t i, double shift, double scale)
{
    return (float)(shift + scale * portable_uniform(name, i));
}

/* ---- the random network ------------------------------------------------------------------------------------------ */

/* Three 3x3 convolutions with ReLU; after the second and after the third the image is halved by 2x2 means (the
 * third: until a side is 2 or odd). The last map, row by row, is the feature vector: 2 x 2 x 32 = 128 for the usual
 * sizes. */
enum { LAYERS = 3 };
static const int layer_out[LAYERS] = {32, 64, 32};
static const char layers[] =
    "random@1: x = u8 / 127.5 - 1; 3 times: relu(conv3x3(x, pad 1) + bias) to 32, 64, 32 channels; "
    "2x2 mean once after the second if both sides are even and above 2; 2x2 means after the third "
    "while both sides are even and above 2; features: the map [h, w, c] flattened. "
    "weights KCRS by the portable formula, names random/convI.weight and random/convI.bias, I from 0; "
    "weight: scale sqrt(24 / (9 C)); bias: scale 1";

/* Values of layer i with C input channels. KCRS. */
static void layer_values(int i, int cin, float *w, float *b)
{
    char name[40];
    int n = layer_out[i] * cin * 9;
    double scale = sqrt(24.0 / (9 * cin)); /* variance 2 / fan_in: ReLU halves the power, this gives it back */
    snprintf(name, sizeof name, "random/conv%d.weight", i);
    uint32_t crc = crc32_of(0, name, strlen(name));
    for (int k = 0; k < n; k++) w[k] = (float)(scale * hash_uniform(crc, (uint32_t)k));
    snprintf(name, sizeof name, "random/conv%d.bias", i);
    crc = crc32_of(0, name, strlen(name));
    for (int k = 0; k < layer_out[i]; k++) b[k] = (float)hash_uniform(crc, (uint32_t)k);
}

static bool can_halve(int h, int w)
{
    return h % 2 == 0 && w % 2 == 0 && h > 2 && w > 2;
}

static int random_dim(int h, int w)
{
    if (can_halve(h, w)) h /= 2, w /= 2; /* once after the second, then while it can: the same halvings either way */
    while (can_halve(h, w)) h /= 2, w /= 2;
    return h * w * layer_out[LAYERS - 1];
}

static void random_build(struct graph *g, int h, int w, int c)
{
    static const double box[2] = {1, 1};
    struct node *x = graph_input(g, "x", h, w, c);
    int cin = c;
    for (int i = 0; i < LAYERS; i++) {
        char name[2][40];
        snprintf(name[0], sizeof name[0], "random/conv%d.weight", i);
        snprintf(name[1], sizeof name[1], "random/conv%d.bias", i);
        struct node *wt =
            graph_param(g, name[0], 4, (int[]){layer_out[i], cin, 3, 3}, (struct init){.kind = INIT_ZERO});
        struct node *bias = graph_param(g, name[1], 1, &layer_out[i], (struct init){.kind = INIT_ZERO});
        x = op_relu(g, op_conv(g, x, wt, bias));
        for (int k = 0; can_halve(h, w) && (i == 2 || (i == 1 && k == 0)); k++) {
            x = op_resample(g, x, box, 2, false);
            h /= 2, w /= 2;
        }
        cin = layer_out[i];
    }
    graph_output(g, "features", x);
}

static void random_weights(struct params *p, const struct graph *g, int c)
{
    int cin = c;
    for (int i = 0; i < LAYERS; i++) {
        float *w = mem_array((size_t)(layer_out[i] * cin * 9), sizeof *w),
              *b = mem_array((size_t)layer_out[i], sizeof *b);
        layer_values(i, cin, w, b);
        for (int k = 0; k < graph_nparams(g); k++) {
            char name[2][40];
            snprintf(name[0], sizeof name[0], "random/conv%d.weight", i);
            snprintf(name[1], sizeof name[1], "random/conv%d.bias", i);
            const char *have = graph_param_info(g, k)->name;
            if (!strcmp(have, name[0])) params_set(p, k, w);
            if (!strcmp(have, name[1])) params_set(p, k, b);
        }
        mem_free(w);
        mem_free(b);
        cin = layer_out[i];
    }
    params_changed(p);
}

err_t extractor_identity(const char *name, int h, int w, int c, char sha[SHA256_TEXT])
{
    struct sha256 s;
    uint8_t digest[SHA256_BYTES];
    char shape[64];
    sha256_init(&s);
    int n = snprintf(shape, sizeof shape, "%dx%dx%d\n", h, w, c);
    sha256_add(&s, shape, (size_t)n);
    if (published_exists(name)) return published_identity(name, h, w, c, sha);
    if (classifier_exists(name)) return classifier_identity(name, h, w, c, sha);
    if (!strcmp(name, "pixel")) {
        static const char text[] = "pixel@1: x = u8 / 127.5 - 1, [h, w, c] flattened";
        sha256_add(&s, text, sizeof text - 1);
    } else if (!strcmp(name, "random")) {
        sha256_add(&s, layers, sizeof layers - 1);
        int cin = c;
        for (int i = 0; i < LAYERS; i++) {
            int nw = layer_out[i] * cin * 9, nb = layer_out[i];
            float *v = mem_array((size_t)(nw + nb), sizeof *v);
            layer_values(i, cin, v, v + nw);
            sha256_add(&s, v, (size_t)(nw + nb) * sizeof *v);
            mem_free(v);
            cin = layer_out[i];
        }
    } else {
        return fail(ERR_USAGE,
                    "no feature extractor named '%s' (there are pixel, random, digits, inception, dinov2-vitl14)",
                    name);
    }
    sha256_end(&s, digest);
    sha256_hex(digest, sha);
    return ERR_OK;
}

/* ---- extractors -------------------------------------------------------------------------------------------------- */

err_t extractor_new(struct extractor **out, const char *name, int h, int w, int c, int batch, const struct kernels *k,
                    struct kdev *dev)
{
    enum { DIM_MAX = 4096 };
    err_t err = ERR_OK;
    *out = NULL;
    struct extractor *x = mem_alloc(sizeof *x);
    *x = (struct extractor){.h = h, .w = w, .c = c, .batch = batch, .k = k, .dev = dev};
    TRYD(extractor_identity(name, h, w, c, x->sha));
    bool random = !strcmp(name, "random");
    if (published_exists(name)) TRYD(published_new(&x->published, name, h, w, c, batch, k, dev));
    if (classifier_exists(name)) TRYD(classifier_new(&x->classifier, name, h, w, c, batch, k, dev));
    x->dim = x->published    ? published_dim(x->published)
             : x->classifier ? classifier_dim(x->classifier)
             : random        ? random_dim(h, w)
                             : h * w * c;
    if (x->dim > DIM_MAX)
        TRYD(fail(ERR_USAGE,
                  "extractor %s gives %d features for %dx%dx%d images, more than %d: too many for a covariance", name,
                  x->dim, h, w, c, DIM_MAX));
    if (random) {
        x->host = mem_array((size_t)batch * (size_t)(h * w * c), sizeof *x->host);
        x->graph = graph_new();
        random_build(x->graph, h, w, c);
        TRYD(params_new(&x->params, x->graph, k, dev));
        random_weights(x->params, x->graph, c);
        TRYD(program_new(&x->prog, x->graph, k, dev, &(struct program_opts){.batch = batch}));
    }
done:
    if (err) extractor_free(x);
    else *out = x;
    return err;
}

void extractor_free(struct extractor *x)
{
    if (!x) return;
    published_free(x->published);
    classifier_free(x->classifier);
    if (x->prog) program_free(x->prog);
    if (x->params) params_free(x->params);
    if (x->graph) graph_free(x->graph);
    mem_free(x->host);
    mem_free(x);
}

int extractor_dim(const struct extractor *x)
{
    return x->dim;
}

bool extractor_exists(const char *name)
{
    return !strcmp(name, "pixel") || !strcmp(name, "random") || published_exists(name) || classifier_exists(name);
}

const char *extractor_resize(const char *name)
{
    return published_exists(name) ? published_resize(name) : "none";
}

const char *extractor_sha(const struct extractor *x)
{
    return x->sha;
}

err_t extractor_run(struct extractor *x, const uint8_t *px, int n, float *out)
{
    assert(n >= 1 && n <= x->batch);
    size_t count = (size_t)n * (size_t)(x->h * x->w * x->c);
    if (x->published) {
        published_run(x->published, px, n, out);
        return ERR_OK;
    }
    if (x->classifier) return classifier_run(x->classifier, px, n, out);
    float *to = x->graph ? x->host : out;
    for (size_t i = 0; i < count; i++) to[i] = (float)(px[i] / 127.5 - 1);
    if (!x->graph) return ERR_OK;
    TRY(program_bind(x->prog, x->params));
    x->k->upload(x->dev, program_input(x->prog, "x"), x->host, count * sizeof(float));
    program_forward(x->prog, x->params, &(struct run_ctx){0});
    x->k->download(x->dev, out, program_output(x->prog, "features"), (size_t)n * (size_t)x->dim * sizeof(float));
    return ERR_OK;
}

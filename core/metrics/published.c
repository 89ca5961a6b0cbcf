/* Extractors with published weights. An image is preprocessed on the host exactly as the published tool does, then a few images at a time go
 * through the network. A name stands for one architecture: a weights file of another one is refused, because its numbers would carry a
 * name that is not theirs. */
#include "core/metrics/published.h"

#include <math.h>
#include <string.h>

#include "core/metrics/pil.h"
#include "core/metrics/weights.h"
#include "core/nets/features.h"

enum { AT_ONCE = 4, SIDE = DINOV2_SIDE };

static const struct row {
    const char *name, *weights, *resize, *text;
    bool dinov2, variant; /* variant: TensorFlow's corners, or the clean resize */
    struct dinov2_config vit;
} rows[] = {
    {"inception",
     "inception",
     "torch bilinear 299, align_corners off, no antialias",
     "inception@1: u8 / 255, bilinear to 299 with half-pixel centres, 2 x - 1, Inception-v3 of 2015 (means over the "
     "pixels inside, max in the "
     "last block), mean over pixels: 2048",
     false,
     false,
     {0}},
    {"inception-tf",
     "inception",
     "TensorFlow 1 bilinear 299, by corners",
     "inception-tf@1: bilinear to 299 at i * in / 299, (x - 128) / 128, the network of inception@1",
     false,
     true,
     {0}},
#define DINOV2(size, dim_, heads_, depth_, gated)                                                                      \
    {"dinov2-" size,                                                                                                   \
     "dinov2-" size,                                                                                                   \
     "Pillow bicubic 224 on uint8",                                                                                    \
     "dinov2@1: Pillow bicubic to 224 on uint8, / 255, ImageNet mean and std, " size                                   \
     " without registers, position table by torch bicubic "                                                            \
     "with 16.1 / 37, normalised class token",                                                                         \
     true,                                                                                                             \
     false,                                                                                                            \
     {.dim = dim_, .heads = heads_, .depth = depth_, .swiglu = gated, .trained = 37}},                                 \
    {                                                                                                                  \
        "dinov2-" size "+clean", "dinov2-" size, "Pillow bicubic 224 on float32, clipped",                             \
            "dinov2+clean@1: Pillow bicubic to 224 on float32 channels, clipped to 0..255, then as dinov2@1, " size,   \
            true, true,                                                                                                \
        {                                                                                                              \
            .dim = dim_, .heads = heads_, .depth = depth_, .swiglu = gated, .trained = 37                              \
        }                                                                                                              \
    }
    DINOV2("vits14", 384, 6, 12, false),
    DINOV2("vitb14", 768, 12, 12, false),
    DINOV2("vitl14", 1024, 16, 24, false),
    DINOV2("vitg14", 1536, 24, 40, true),
};

struct published {
    const struct row *row;
    int h, w, c, dim, at_once;
    size_t per; /* floats of one input of the network */
    const struct kernels *k;
    struct kdev *dev;
    struct graph *graph;
    struct params *params;
    struct program *prog;
    float *host, *chw; /* [at_once, per]; one preprocessed image */
};

static const struct row *row_find(const char *name)
{
    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        if (!strcmp(rows[i].name, name)) return &rows[i];
    return NULL;
}

bool published_exists(const char *name)
{
    return row_find(name) != NULL;
}
const char *published_resize(const char *name)
{
    return row_find(name)->resize;
}
int published_dim(const struct published *p)
{
    return p->dim;
}

/* ---- what the networks see -------------------------------------------------------------------------------------------- */

void inception_pixels(const uint8_t *px, int h, int w, int c, float *hwc)
{
    for (int i = 0; i < h * w; i++)
        for (int k = 0; k < 3; k++) hwc[i * 3 + k] = (float)px[i * c + (c == 1 ? 0 : k)] / 255.0f;
}

void dinov2_preprocess(const uint8_t *px, int h, int w, int c, bool clean, float *chw, float *resized)
{
    static const float mean[3] = {0.485f, 0.456f, 0.406f}, std[3] = {0.229f, 0.224f, 0.225f};
    size_t in = (size_t)h * (size_t)w * (size_t)c, out = (size_t)SIDE * SIDE * (size_t)c;
    float *x = mem_array(in + out, sizeof *x), *y = x + in;
    uint8_t *bytes = mem_array(out, 1);
    if (clean) {
        for (size_t i = 0; i < in; i++) x[i] = px[i];
        pil_bicubic_f32(x, h, w, c, y, SIDE, SIDE);
        for (size_t i = 0; i < out; i++) y[i] = y[i] < 0 ? 0 : y[i] > 255 ? 255 : y[i];
    } else {
        pil_bicubic_u8(px, h, w, c, bytes, SIDE, SIDE);
        for (size_t i = 0; i < out; i++) y[i] = bytes[i];
    }
    for (int i = 0; i < SIDE * SIDE; i++)
        for (int k = 0; k < 3; k++) {
            float v = y[i * c + (c == 1 ? 0 : k)] / 255.0f;
            if (resized) resized[i * 3 + k] = v;
            chw[k * SIDE * SIDE + i] = (v - mean[k]) / std[k];
        }
    mem_free(x);
    mem_free(bytes);
}

/* ---- identity ---------------------------------------------------------------------------------------------------------- */

static err_t check_shape(const struct row *r, int c)
{
    if (c == 1 || c == 3) return ERR_OK;
    return fail(ERR_USAGE, "%s looks at images of 1 or 3 channels, not %d", r->name, c);
}

err_t published_identity(const char *name, int h, int w, int c, char sha[SHA256_TEXT])
{
    const struct row *r = row_find(name);
    char *path = NULL, file[SHA256_TEXT];
    TRY(check_shape(r, c));
    TRY(weights_find(r->weights, &path));
    err_t err = weights_file_sha(path, file);
    if (!err) {
        char *text = mem_printf("%dx%dx%d\n%s\nweights %s", h, w, c, r->text, file);
        sha256_text(text, strlen(text), sha);
        mem_free(text);
    }
    mem_free(path);
    return err;
}

/* ---- life -------------------------------------------------------------------------------------------------------------- */

static err_t get(void *ctx, const char *name, float *out, size_t count)
{
    return weights_get(ctx, name, out, count);
}

static err_t wrong(const struct weights *w, const char *what, int64_t is, int64_t should)
{
    return fail(ERR_FORMAT, "%s: %s is %lld, and should be %lld", weights_path(w), what, (long long)is,
                (long long)should);
}

/* The file is of the architecture that the name says. */
static err_t check_vit(const struct weights *w, const struct dinov2_config *c)
{
    int64_t dims[8];
    char name[64];
    int depth = 0;
    if (weights_dims(w, "cls_token", dims) != 3)
        return fail(ERR_FORMAT, "%s: no DINOv2 network (no cls_token)", weights_path(w));
    if (dims[2] != c->dim) return wrong(w, "its width", dims[2], c->dim);
    do snprintf(name, sizeof name, "blocks.%d.norm1.weight", depth++);
    while (weights_dims(w, name, dims) >= 0);
    if (depth - 1 != c->depth) return wrong(w, "its number of blocks", depth - 1, c->depth);
    if (weights_dims(w, "register_tokens", dims) >= 0)
        return fail(ERR_FORMAT, "%s: a network with registers", weights_path(w));
    return ERR_OK;
}

static err_t params_fill(struct published *p, struct weights *w)
{
    struct tensor_source s = {get, w};
    p->graph = graph_new();
    if (p->row->dinov2) {
        TRY(check_vit(w, &p->row->vit));
        dinov2_build(p->graph, &p->row->vit);
    } else inception_build(p->graph, p->h, p->w, p->row->variant);
    TRY(params_new(&p->params, p->graph, p->k, p->dev));
    if (p->row->dinov2) return dinov2_load(p->graph, p->params, &p->row->vit, &s);
    return inception_load(p->graph, p->params, &s);
}

static err_t network_new(struct published *p, struct weights *w)
{
    struct program_opts o = {.batch = p->at_once, .only = "features"};
    TRY(params_fill(p, w));
    TRY(program_new(&p->prog, p->graph, p->k, p->dev, &o));
    return program_bind(p->prog, p->params);
}

err_t published_check(const char *name, const char *path, const struct kernels *k, struct kdev *dev)
{
    struct published *p = mem_alloc(sizeof *p);
    struct weights *file = NULL;
    *p = (struct published){.row = row_find(name), .h = 32, .w = 32, .c = 3, .k = k, .dev = dev};
    err_t err = weights_open(&file, path);
    if (!err) err = params_fill(p, file);
    weights_close(file);
    published_free(p);
    return err;
}

err_t published_new(struct published **out, const char *name, int h, int w, int c, int batch, const struct kernels *k,
                    struct kdev *dev)
{
    struct published *p = mem_alloc(sizeof *p);
    struct weights *file = NULL;
    char *path = NULL;
    err_t err = ERR_OK;
    *out = NULL;
    *p = (struct published){.row = row_find(name), .h = h, .w = w, .c = c, .k = k, .dev = dev};
    p->dim = p->row->dinov2 ? p->row->vit.dim : INCEPTION_DIM;
    p->per = p->row->dinov2 ? (size_t)DINOV2_TOKENS * DINOV2_VALUES : (size_t)h * (size_t)w * 3;
    p->at_once = batch < AT_ONCE ? batch : AT_ONCE;
    p->host = mem_array((size_t)p->at_once * p->per, sizeof *p->host);
    p->chw = mem_array((size_t)3 * SIDE * SIDE, sizeof *p->chw);
    TRYD(check_shape(p->row, c));
    TRYD(weights_find(p->row->weights, &path));
    TRYD(weights_open(&file, path));
    TRYD(network_new(p, file));
done:
    weights_close(file);
    mem_free(path);
    if (err) published_free(p);
    else *out = p;
    return err;
}

void published_free(struct published *p)
{
    if (!p) return;
    program_free(p->prog);
    params_free(p->params);
    if (p->graph) graph_free(p->graph);
    mem_free(p->host);
    mem_free(p->chw);
    mem_free(p);
}

static void prepare(struct published *p, const uint8_t *px, float *to)
{
    if (!p->row->dinov2) {
        inception_pixels(px, p->h, p->w, p->c, to);
        return;
    }
    dinov2_preprocess(px, p->h, p->w, p->c, p->row->variant, p->chw, NULL);
    dinov2_patches(p->chw, to);
}

void published_run(struct published *p, const uint8_t *px, int n, float *out)
{
    size_t image = (size_t)p->h * (size_t)p->w * (size_t)p->c;
    for (int at = 0; at < n; at += p->at_once) {
        int take = n - at < p->at_once ? n - at : p->at_once;
        for (int i = 0; i < take; i++) prepare(p, px + (size_t)(at + i) * image, p->host + (size_t)i * p->per);
        p->k->upload(p->dev, program_input(p->prog, p->row->dinov2 ? "patches" : "x"), p->host,
                     (size_t)take * p->per * sizeof(float));
        program_forward(p->prog, p->params, &(struct run_ctx){0});
        p->k->download(p->dev, out + (size_t)at * (size_t)p->dim, program_output(p->prog, "features"),
                       (size_t)take * (size_t)p->dim * sizeof(float));
    }
}

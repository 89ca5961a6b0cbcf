/* The published feature networks with weights made by formula: FID's Inception-v3 and DINOv2, from bytes of an image to the feature vector. */
#include <math.h>
#include <string.h>

#include "core/metrics/published.h"
#include "core/nets/features.h"
#include "tests/golden/golden.h"

/* ---- weights by formula: the values, and which scale a name has ---------------------------------------------------------------------- */

struct formula {
    const char *salt;
    const struct graph *g;
    void (*rule)(const struct formula *f, const char *name, double *shift, double *scale);
};

static bool ends(const char *s, const char *end)
{
    size_t n = strlen(s), m = strlen(end);
    return n >= m && !strcmp(s + n - m, end);
}

static void formula_fill(const struct formula *f, const char *name, float *out, size_t count)
{
    char salted[256];
    double shift = 0, scale = 0;
    int n = snprintf(salted, sizeof salted, "%s%s", f->salt, name);
    uint32_t crc = crc32_of(0, salted, (size_t)n);
    f->rule(f, name, &shift, &scale);
    for (size_t i = 0; i < count; i++) out[i] = (float)(shift + scale * portable_hash(crc, (uint32_t)i));
}

static err_t formula_get(void *ctx, const char *name, float *out, size_t count)
{
    formula_fill(ctx, name, out, count);
    return ERR_OK;
}

static int fan_in(const struct graph *g, const char *name)
{
    const struct param_info *p = graph_param_named(g, name);
    return p ? (int)(p->count / (size_t)p->dims[0]) : 1;
}

/* spot/NAME: the first values of that tensor, exact */
static void compare_spots(struct part *p, const struct formula *w, const char *prefix)
{
    for (int i = 0; i < st_count(p->f->st); i++) {
        const char *name = st_at(p->f->st, i)->name;
        size_t at = strlen(prefix), n;
        if (strncmp(name, prefix, at) || strncmp(name + at, "spot/", 5)) continue;
        double *want = take(p->f, &n, "%s", name);
        float *v = mem_array(n, sizeof *v);
        double *got = mem_array(n, sizeof *got);
        formula_fill(w, name + at + 5, v, n);
        for (size_t j = 0; j < n; j++) got[j] = v[j];
        part_equal(p, "weight", name, got, want, n);
        mem_free(want);
        mem_free(got);
        mem_free(v);
    }
}

struct feature_net {
    struct graph *graph;
    struct params *weights;
    struct program *prog;
};

static bool net_open(struct feature_net *n, struct part *p, int batch)
{
    struct golden *g = p->f->g;
    if (!params_new(&n->weights, n->graph, g->k, g->dev) &&
        !program_new(&n->prog, n->graph, g->k, g->dev, &(struct program_opts){.batch = batch}))
        return true;
    part_fail(p, "%s", err_text());
    return false;
}

static void net_close(struct feature_net *n)
{
    program_free(n->prog);
    params_free(n->weights);
    graph_free(n->graph);
}

static double *output(struct part *p, const struct feature_net *n, const char *name, size_t count)
{
    float *v = mem_array(count, sizeof *v);
    double *x = mem_array(count, sizeof *x);
    p->f->g->k->download(p->f->g->dev, v, program_output(n->prog, name), count * sizeof *v);
    for (size_t i = 0; i < count; i++) x[i] = v[i];
    mem_free(v);
    return x;
}

/* ---- Inception ------------------------------------------------------------------------------------------------------------------------ */

static void inception_rule(const struct formula *f, const char *name, double *shift, double *scale)
{
    if (ends(name, ".conv.weight")) *scale = 2 * sqrt(6.0 / fan_in(f->g, name));
    else if (!strcmp(name, "fc.weight")) *scale = 2 * sqrt(3.0 / INCEPTION_DIM);
    else if (!strcmp(name, "fc.bias")) *scale = 0.2;
    else if (ends(name, ".bn.weight")) *shift = 1, *scale = 0.4;
    else if (ends(name, ".running_var")) *shift = 1, *scale = 0.8;
    else *scale = 0.4; /* bn.bias, running_mean */
}

/* Every n-th pixel of image 0 after resizing, and mean and rms of all. */
static void compare_resized(struct part *p, const struct feature_net *net, size_t images)
{
    enum { SIDE = INCEPTION_SIDE };
    size_t n, all = images * SIDE * SIDE * 3;
    double *got = output(p, net, "resized", all), mean = 0, square = 0;
    double *want = need(p, &n, "out/resized_image0_stride7"), *stat = need(p, NULL, "out/resized_stat");
    size_t side = (SIDE + 6) / 7;
    if (want && n == 3 * side * side) {
        double *some = mem_array(n, sizeof *some);
        for (size_t i = 0; i < n; i++) {
            size_t c = i / (side * side), y = i / side % side * 7, x = i % side * 7;
            some[i] = got[(y * SIDE + x) * 3 + c];
        }
        part_close(p, "resized", "resized pixels", some, want, n,
                   3e-7); /* values up to 1: a few roundings of a float */
        mem_free(some);
    } else if (want) part_fail(p, "out/resized_image0_stride7 has another shape");
    for (size_t i = 0; i < all; i++) mean += got[i] / (double)all, square += got[i] * got[i] / (double)all;
    if (stat) part_close(p, "resized", "mean and rms", (double[]){mean, sqrt(square)}, stat, 2, 1e-6);
    mem_free(got);
    mem_free(want);
    mem_free(stat);
}

static void compare_logits(struct part *p, const struct formula *w, const double *pool, size_t images, double noise)
{
    size_t n, d = INCEPTION_DIM;
    double *want = need(p, &n, "out/logits1008_head16");
    if (!want) return;
    size_t head = n / images;
    float *fc = mem_array(head * d + head, sizeof *fc);
    double *got = mem_array(n, sizeof *got);
    formula_fill(w, "fc.weight", fc, head * d);
    formula_fill(w, "fc.bias", fc + head * d, head);
    for (size_t i = 0; i < n; i++) {
        got[i] = fc[head * d + i % head];
        for (size_t k = 0; k < d; k++) got[i] += pool[i / head * d + k] * fc[i % head * d + k];
    }
    part_close(p, "feature", "logits", got, want, n, bound_factor * noise * max_abs(want, n));
    mem_free(fc);
    mem_free(got);
    mem_free(want);
}

static void compare_pooled(struct part *p, const struct feature_net *net, size_t images, double noise)
{
    static const struct {
        const char *ours, *theirs;
        size_t dim;
    } out[] = {
        {"block0", "out/block0_gap64", 64}, {"block1", "out/block1_gap192", 192}, {"block2", "out/block2_gap768", 768}};
    for (size_t i = 0; i < ARRAY_LEN(out); i++) {
        size_t n;
        double *want = need(p, &n, "%s", out[i].theirs), *got = output(p, net, out[i].ours, images * out[i].dim);
        if (want && n == images * out[i].dim)
            part_close(p, "feature", out[i].theirs, got, want, n, bound_factor * noise * max_abs(want, n));
        else if (want) part_fail(p, "%s has another shape", out[i].theirs);
        mem_free(want);
        mem_free(got);
    }
}

static void inception_images(struct part *p, const struct formula *w, struct feature_net *net, const double *u8,
                             size_t images, size_t per)
{
    double noise = noise_floor(json_num(NULL, "", 0));
    const char *text = st_meta(p->f->st, "f32_vs_f64");
    if (text) num_parse(text, &noise), noise = noise_floor(noise);
    float *x = mem_array(images * per, sizeof *x);
    uint8_t *px = mem_array(images * per, 1);
    for (size_t i = 0; i < images * per; i++) px[i] = (uint8_t)u8[i];
    inception_pixels(px, (int)(images * per / 3), 1, 3, x);
    mem_free(px);
    p->f->g->k->upload(p->f->g->dev, program_input(net->prog, "x"), x, images * per * sizeof *x);
    mem_free(x);
    program_forward(net->prog, net->weights, &(struct run_ctx){0});
    compare_resized(p, net, images);
    compare_pooled(p, net, images, noise);
    size_t n, count = images * INCEPTION_DIM;
    double *want = need(p, &n, "out64/pool2048"), *got = output(p, net, "features", count);
    double *f32 =
        take(p->f, NULL, "out/pool2048"); /* the published float run: within our bound of its own double run */
    if (want && n == count) part_close(p, "feature", "pool2048", got, want, n, bound_factor * noise * max_abs(want, n));
    else if (want) part_fail(p, "out64/pool2048 has another shape");
    compare_logits(p, w, got, images, noise);
    mem_free(want);
    mem_free(got);
    mem_free(f32);
}

void check_inception(struct gfile *f)
{
    struct part p;
    struct feature_net net = {.graph = graph_new()};
    const char *salt = st_meta(f->st, "salt");
    struct formula w = {.salt = salt ? salt : "", .g = net.graph, .rule = inception_rule};
    const struct st_tensor *in = st_find(f->st, "in/images_u8_nhwc");
    part_begin(&p, f, "inception");
    double *u8 = need(&p, NULL, "in/images_u8_nhwc"), *same = take(f, NULL, "in/x"); /* in/x: the same pixels / 255 */
    if (u8 && (in->ndim != 4 || in->dims[3] != 3)) part_fail(&p, "in/images_u8_nhwc has another shape");
    if (u8 && !p.failed) {
        int n = (int)in->dims[0], h = (int)in->dims[1], width = (int)in->dims[2];
        inception_build(net.graph, h, width, false);
        if (net_open(&net, &p, n)) {
            if (inception_load(net.graph, net.weights, &(struct tensor_source){formula_get, &w}))
                part_fail(&p, "%s", err_text());
            compare_spots(&p, &w, "");
            inception_images(&p, &w, &net, u8, (size_t)n, (size_t)(h * width) * 3);
        }
    }
    part_end(&p);
    net_close(&net);
    mem_free(u8);
    mem_free(same);
}

/* ---- DINOv2 --------------------------------------------------------------------------------------------------------------------------- */

static void dinov2_rule(const struct formula *f, const char *name, double *shift, double *scale)
{
    if (!strcmp(name, "cls_token") || !strcmp(name, "pos_embed") || !strcmp(name, "mask_token") || ends(name, ".bias"))
        *scale = 0.4;
    else if (ends(name, "norm1.weight") || ends(name, "norm2.weight") || !strcmp(name, "norm.weight"))
        *shift = 1, *scale = 0.4;
    else if (ends(name, ".gamma")) *shift = 0.5, *scale = 0.6;
    else *scale = 2 * sqrt(3.0 / fan_in(f->g, name));
}

enum { SIDE = DINOV2_SIDE, IMAGES = 64 };

struct picture {
    int h, w;
    uint8_t *px; /* [h, w, 3] */
};

/* Image i: stored, or made by the formula that the metadata gives (uint8 floor((u + 0.5) 256)). */
static bool picture_open(struct picture *q, struct part *p, const json_t *shape, int i)
{
    size_t n = 0;
    char key[32];
    *q = (struct picture){(int)json_integer_value(json_array_get(shape, 0)),
                          (int)json_integer_value(json_array_get(shape, 1)), NULL};
    size_t count = (size_t)q->h * (size_t)q->w * 3;
    double *stored = take(p->f, &n, "in/image%d_u8_hwc", i), *head = take(p->f, NULL, "in/image%d_head", i);
    snprintf(key, sizeof key, "image%d", i);
    json_t *made = meta_json(p->f, key);
    const char *name = json_string_value(json_object_get(made, "name"));
    if (count && ((stored && n == count) || (!stored && name))) {
        q->px = mem_array(count, 1);
        for (size_t j = 0; j < count; j++)
            q->px[j] = stored ? (uint8_t)stored[j] : (uint8_t)floor((portable_u(name, (uint32_t)j) + 0.5) * 256);
        for (size_t j = 0; head && j < 24; j++)
            if (q->px[j] != head[j]) part_fail(p, "image %d is not the one of the formula", i);
    } else part_fail(p, "image %d is neither stored nor described", i);
    mem_free(stored);
    mem_free(head);
    json_decref(made);
    return q->px != NULL;
}

static void compare_every8(struct part *p, const float *chw, const char *what)
{
    enum { FEW = SIDE / 8 };
    size_t n;
    double *want = need(p, &n, "%s", what), *got = mem_array(3 * FEW * FEW, sizeof *got);
    for (int i = 0; i < 3 * FEW * FEW; i++)
        got[i] = chw[(i / (FEW * FEW) * SIDE + i / FEW % FEW * 8) * SIDE + i % FEW * 8];
    if (want && n == 3 * FEW * FEW)
        part_close(p, "preprocessing", what, got, want, n, 5e-7); /* values up to 2.7: one rounding */
    else if (want) part_fail(p, "%s has another shape", what);
    mem_free(want);
    mem_free(got);
}

static void compare_bytes(struct part *p, const uint8_t *px, int i)
{
    char what[64];
    for (int step = 1; step <= 3; step += 2) {
        size_t n, side = (SIDE + (size_t)step - 1) / (size_t)step;
        snprintf(what, sizeof what, "out/image%d_resized_u8_hwc%s", i, step == 3 ? "_stride3" : "");
        double *want = take(p->f, &n, "%s", what), *got = mem_array(side * side * 3, sizeof *got);
        for (size_t j = 0; j < side * side * 3; j++)
            got[j] = px[(j / 3 / side * (size_t)step * SIDE + j / 3 % side * (size_t)step) * 3 + j % 3];
        if (want && n == side * side * 3) part_equal(p, "bytes", what, got, want, n);
        else if (want) part_fail(p, "%s has another shape", what);
        mem_free(want);
        mem_free(got);
    }
    double sum[3] = {0}, *want = need(p, NULL, "out/image%d_resized_sum_per_channel", i);
    for (int j = 0; j < SIDE * SIDE * 3; j++) sum[j % 3] += px[j];
    if (want) part_equal(p, "bytes", "sums of channels", sum, want, 3);
    mem_free(want);
}

/* Compares the preprocessing of image i; its normalised values in chw. */
static void check_picture(struct part *p, const struct picture *q, int i, float *chw)
{
    char what[80];
    size_t count = (size_t)SIDE * SIDE * 3;
    uint8_t *px = mem_array(count, 1);
    float *x = mem_array(count, sizeof *x);
    dinov2_preprocess(q->px, q->h, q->w, 3, true, chw, NULL);
    snprintf(what, sizeof what, "out/image%d_clean_resize_normalised_chw_stride8", i);
    compare_every8(p, chw, what);
    dinov2_preprocess(q->px, q->h, q->w, 3, false, chw, x);
    for (size_t j = 0; j < count; j++) px[j] = (uint8_t)lrintf(x[j] * 255);
    compare_bytes(p, px, i);
    snprintf(what, sizeof what, "out/image%d_normalised_chw_stride8", i);
    compare_every8(p, chw, what);
    mem_free(px);
    mem_free(x);
}

static void compare_positions(struct part *p, const struct formula *w, const struct dinov2_config *c, const char *model)
{
    size_t n, dim = (size_t)c->dim, side = (size_t)c->trained;
    double *want = need(p, &n, "%s/out/pos_embed_interp_head8", model);
    if (!want) return;
    size_t rows = 1 + (size_t)DINOV2_GRID * DINOV2_GRID, head = n / rows;
    float *all = mem_array((1 + side * side) * dim, sizeof *all), *table = mem_array(rows * dim, sizeof *table);
    double *got = mem_array(rows * head, sizeof *got);
    formula_fill(w, "pos_embed", all, (1 + side * side) * dim);
    dinov2_positions(all + dim, c->trained, table + dim, DINOV2_GRID, c->dim);
    memcpy(table, all, dim * sizeof *all);
    for (size_t i = 0; i < rows * head; i++) got[i] = table[i / head * dim + i % head];
    part_close(p, "positions", "position table", got, want, rows * head,
               1e-6); /* values up to 0.3, sums of 16 products in float */
    mem_free(want);
    mem_free(got);
    mem_free(all);
    mem_free(table);
}

static const double usual_noise = 7.5e-7;

/* One network on the first images of the file; chw: all of them. */
static void check_model(struct gfile *f, const char *model, const json_t *config, const float *chw, size_t images)
{
    struct part p;
    struct feature_net net = {.graph = graph_new()};
    char key[80];
    size_t n = 0;
    double noise = 0, *want, *f32;
    const char *arch = json_string_value(json_object_get(config, "arch")),
               *salt = json_string_value(json_object_get(config, "salt"));
    struct formula w = {.salt = salt ? salt : "", .g = net.graph, .rule = dinov2_rule};
    struct dinov2_config c = {.dim = (int)json_num(config, "embed_dim", 0),
                              .heads = (int)json_num(config, "num_heads", 0),
                              .depth = (int)json_num(config, "depth", 0),
                              .swiglu = arch && strstr(arch, "giant"),
                              .trained = (int)json_num(config, "img_size", 518) / DINOV2_PATCH};
    part_begin(&p, f, "%.40s", model);
    snprintf(key, sizeof key, "%s_f32_vs_f64", model);
    const char *text = st_meta(f->st, key);
    if (text) num_parse(text, &noise);
    else noise = usual_noise; /* its double run is not stored: another network's noise */
    want = take(f, &n, "%s/out64/features", model);
    f32 = need(&p, &n, "%s/out/features", model); /* the only ones where the double run is not stored */
    if (c.dim < 1 || c.heads < 1 || c.dim % c.heads || c.depth < 1) part_fail(&p, "its configuration is not known");
    else if (f32 && (n % (size_t)c.dim || n / (size_t)c.dim > images)) part_fail(&p, "features have another shape");
    if (!p.failed) {
        size_t batch = n / (size_t)c.dim;
        dinov2_build(net.graph, &c);
        if (net_open(&net, &p, (int)batch)) {
            float *patches = mem_array((size_t)DINOV2_TOKENS * DINOV2_VALUES, sizeof *patches);
            if (dinov2_load(net.graph, net.weights, &c, &(struct tensor_source){formula_get, &w}))
                part_fail(&p, "%s", err_text());
            for (size_t i = 0; i < batch; i++) {
                dinov2_patches(chw + i * 3 * SIDE * SIDE, patches);
                f->g->k->upload(f->g->dev, program_input(net.prog, "patches") + i * DINOV2_TOKENS * DINOV2_VALUES,
                                patches, (size_t)DINOV2_TOKENS * DINOV2_VALUES * sizeof *patches);
            }
            mem_free(patches);
            program_forward(net.prog, net.weights, &(struct run_ctx){0});
            double *got = output(&p, &net, "features", n);
            compare_spots(&p, &w, key[0] ? (snprintf(key, sizeof key, "%s/", model), key) : "");
            compare_positions(&p, &w, &c, model);
            part_close(&p, "feature", "features", got, want ? want : f32, n,
                       bound_factor * noise_floor(noise) * max_abs(f32, n));
            mem_free(got);
        }
    }
    part_end(&p);
    net_close(&net);
    mem_free(want);
    mem_free(f32);
}

void check_dinov2(struct gfile *f)
{
    struct part p;
    json_t *shapes = meta_json(f, "images");
    size_t n = json_array_size(shapes), values = (size_t)3 * SIDE * SIDE;
    float *chw = mem_array((n ? n : 1) * values, sizeof *chw);
    part_begin(&p, f, "preprocessing");
    if (!n || n > IMAGES) part_fail(&p, "no list of images in its metadata");
    for (size_t i = 0; i < n && !p.failed; i++) {
        struct picture q;
        if (picture_open(&q, &p, json_array_get(shapes, i), (int)i)) check_picture(&p, &q, (int)i, chw + i * values);
        mem_free(q.px);
    }
    part_end(&p);
    for (int i = 0; i < st_count(f->st); i++) { /* NAME/out/features: a network */
        const char *name = st_at(f->st, i)->name;
        char model[64];
        if (!ends(name, "/out/features")) continue;
        snprintf(model, sizeof model, "%.*s", (int)(strlen(name) - strlen("/out/features")), name);
        json_t *config = meta_json(f, model);
        check_model(f, model, config, chw, n);
        json_decref(config);
    }
    mem_free(chw);
    json_decref(shapes);
}

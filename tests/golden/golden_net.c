/* Networks: the published module's outputs, its loss and every gradient, with parameters in the official order. */
#include "tests/golden/golden.h"

#include <float.h>
#include <math.h>
#include <string.h>

/* ---- configuration and weights -------------------------------------------------------------------------------------------------- */

static const char *text_of(const json_t *o, const char *key, const char *fallback)
{
    const json_t *v = json_object_get(o, key);
    return json_is_string(v) ? json_string_value(v) : fallback;
}

static int coder_of(const char *name)
{
    return !strcmp(name, "residual") ? CODER_RESIDUAL : !strcmp(name, "skip") ? CODER_SKIP : CODER_STANDARD;
}

static int int_list(const json_t *list, int *out)
{
    int n = (int)json_array_size(list);
    for (int i = 0; i < n && i < NET_LEVELS; i++) out[i] = (int)json_integer_value(json_array_get(list, (size_t)i));
    return n;
}

/* Nothing of one part of a sum: for the program 0 is the published default. */
static double balance(const json_t *config, const char *key, double absent)
{
    double v = json_num(config, key, absent);
    return v > 0 ? v : DBL_MIN;
}

/* Defaults are those of the published modules. */
static void edm2_config(const json_t *config, struct net_config *c)
{
    snprintf(c->family, sizeof c->family, "edm2");
    if (!json_object_get(config, "channel_mult")) c->nmult = 4, memcpy(c->mult, (int[]){1, 2, 3, 4}, 4 * sizeof(int));
    if (!json_object_get(config, "attn_resolutions")) c->nattn = 2, memcpy(c->attn, (int[]){16, 8}, 2 * sizeof(int));
    c->width = (int)json_num(config, "model_channels", 192);
    c->blocks = (int)json_num(config, "num_blocks", 3);
    c->emb_mult = (int)json_num(config, "channel_mult_emb", 0);
    c->noise_mult = (int)json_num(config, "channel_mult_noise", 0);
    c->head = (int)json_num(config, "channels_per_head", 64);
    c->logvar_channels = (int)json_num(config, "logvar_channels", 128);
    c->clip = json_is_null(json_object_get(config, "clip_act")) ? 0 : json_num(config, "clip_act", 256);
    c->label_balance = balance(config, "label_balance", 0.5);
    c->concat_balance = balance(config, "concat_balance", 0.5);
    c->res_balance = balance(config, "res_balance", 0.3);
    c->attn_balance = balance(config, "attn_balance", 0.3);
    c->nfilter = int_list(json_object_get(config, "resample_filter"), c->filter);
}

static void songunet_config(const json_t *config, struct net_config *c)
{
    c->fourier = !strcmp(text_of(config, "embedding_type", "positional"), "fourier");
    c->encoder = coder_of(text_of(config, "encoder_type", "standard"));
    c->decoder = coder_of(text_of(config, "decoder_type", "standard"));
    c->noise_mult = (int)json_num(config, "channel_mult_noise", 1);
    c->nfilter = int_list(json_object_get(config, "resample_filter"), c->filter);
}

static void adm_config(const json_t *config, struct net_config *c)
{
    snprintf(c->family, sizeof c->family, "adm");
    if (!json_object_get(config, "channel_mult")) c->nmult = 4, memcpy(c->mult, (int[]){1, 2, 3, 4}, 4 * sizeof(int));
    if (!json_object_get(config, "attn_resolutions"))
        c->nattn = 3, memcpy(c->attn, (int[]){32, 16, 8}, 3 * sizeof(int));
    c->width = (int)json_num(config, "model_channels", 192);
    c->blocks = (int)json_num(config, "num_blocks", 3);
    c->head = (int)json_num(config, "channels_per_head", 64);
}

bool gnet_config(const json_t *config, double sigma_data, struct net_config *c, char why[160])
{
    const json_t *mult = json_object_get(config, "channel_mult"), *attn = json_object_get(config, "attn_resolutions");
    const char *type = text_of(config, "model_type", "EDM2"); /* EDM2's configurations name no type */
    bool adm = !strcmp(type, "DhariwalUNet"), edm2 = !strcmp(type, "EDM2");
    if (!json_is_object(config) || (!adm && !edm2 && strcmp(type, "SongUNet"))) {
        snprintf(why, 160, "its configuration is none of SongUNet, DhariwalUNet and EDM2");
        return false;
    }
    *c = (struct net_config){.family = "songunet",
                             .resolution = (int)json_num(config, "img_resolution", 0),
                             .in_channels = (int)json_num(config, "img_channels", 3),
                             .label_dim = (int)json_num(config, "label_dim", 0),
                             .augment_dim = (int)json_num(config, "augment_dim", 0),
                             .width = (int)json_num(config, "model_channels", 128),
                             .blocks = (int)json_num(config, "num_blocks", 4),
                             .emb_mult = (int)json_num(config, "channel_mult_emb", 4),
                             .noise_mult = 1,
                             .sigma_data = json_num(config, "sigma_data", sigma_data),
                             .mult = {2, 2, 2},
                             .nmult = 3,
                             .attn = {16},
                             .nattn = 1};
    if (mult) c->nmult = int_list(mult, c->mult);
    if (attn) c->nattn = int_list(attn, c->attn);
    if (edm2) edm2_config(config, c);
    else if (adm) adm_config(config, c);
    else songunet_config(config, c);
    if (c->nmult <= NET_LEVELS && c->nattn <= NET_LEVELS && c->nfilter <= NET_LEVELS) return true;
    snprintf(why, 160, "more than %d resolutions or taps", NET_LEVELS);
    return false;
}

/* README: norm weights 1 + 0.4 u, other vectors 0.4 u, the rest 2 sqrt(3 / fan_in) u, rounded to float; in EDM2 gains 0.7 + 0.6 u, the
 * rest 2 sqrt(3) 1.4 u. */
static void portable_values(const struct net_config *c, const struct param_info *info, float *out)
{
    size_t len = strlen(info->name);
    bool norm = strstr(info->name, "norm") && len > 6 && !strcmp(info->name + len - 6, "weight");
    double fan_in = 1, shift = 0, scale = 0.4;
    for (int i = 1; i < info->ndim; i++) fan_in *= info->dims[i];
    if (info->ndim >= 2) scale = 2 * sqrt(3 / fan_in);
    if (norm && info->ndim < 2) shift = 1;
    if (!strcmp(c->family, "edm2")) {
        shift = info->ndim ? 0 : 0.7;
        scale = info->ndim ? 2 * sqrt(3) * 1.4 : 0.6;
    }
    for (size_t i = 0; i < info->count; i++) out[i] = (float)(shift + scale * portable_u(info->name, (uint32_t)i));
}

/* Our constant against the file's: it is what the operators use, whatever a checkpoint holds. */
static bool same_buffer(struct part *p, const struct gnet *n, int i, const double *want)
{
    const struct param_info *info = graph_param_info(n->graph, i);
    float *ours = mem_array(info->count, sizeof(float));
    bool same = true;
    params_get(n->weights, i, ours);
    for (size_t j = 0; j < info->count; j++) same = same && ours[j] == (float)want[j];
    if (!same) part_fail(p, "buffer %s has other values than ours", info->name);
    mem_free(ours);
    return same;
}

static bool load_param(struct gnet *n, struct part *p, int i, bool portable)
{
    const struct param_info *info = graph_param_info(n->graph, i);
    char name[256];
    snprintf(name, sizeof name, "param/%s", info->name);
    const struct st_tensor *t = st_find(p->f->st, name);
    bool constant = info->buffer && info->init.kind == INIT_ZERO; /* not drawn */
    if (!t && !portable) part_fail(p, "the file has no %s", name);
    if (!t && constant) return portable;
    if (!t && !portable) return false;
    bool ok = !t || (t->ndim == info->ndim && t->count == info->count);
    for (int j = 0; t && ok && j < t->ndim; j++) ok = t->dims[j] == info->dims[j];
    if (!ok) {
        part_fail(p, "%s has another shape than ours", name);
        return false;
    }
    double *x = t ? need(p, NULL, "%s", name) : NULL;
    float *values = mem_array(info->count, sizeof(float));
    if (!t) portable_values(&n->c, info, values);
    for (size_t j = 0; x && j < info->count; j++) values[j] = (float)x[j];
    if (constant) ok = x && same_buffer(p, n, i, x);
    else params_set(n->weights, i, values);
    mem_free(x);
    mem_free(values);
    return ok;
}

bool gnet_open(struct gnet *n, struct part *p, double sigma_data)
{
    return gnet_open_at(n, p, sigma_data, 0);
}

bool gnet_open_at(struct gnet *n, struct part *p, double sigma_data, double sigma_min)
{
    char why[160];
    const char *weights = st_meta(p->f->st, "weights"), *head = st_meta(p->f->st, "channels_per_head");
    json_t *config = meta_json(p->f, "config");
    *n = (struct gnet){.g = p->f->g};
    bool ok = gnet_config(config, sigma_data, &n->c, why);
    if (!ok) part_fail(p, "%s", why);
    if (head) n->c.head = atoi(head); /* the published module has 64 in its source; some files were made with another */
    json_decref(config);
    if (!ok) return false;
    n->c.logvar = st_find(p->f->st, "param/logvar_fourier.freqs") != NULL; /* ECT's variant has no such head */
    n->c.sigma_min = sigma_min;
    n->per = (size_t)n->c.resolution * (size_t)n->c.resolution * (size_t)n->c.in_channels;
    n->graph = graph_new();
    if (net_build(n->graph, &n->c) || params_new(&n->weights, n->graph, n->g->k, n->g->dev)) {
        part_fail(p, "%s", err_text());
        return false;
    }
    params_init(n->weights, 0); /* every parameter is overwritten below */
    bool portable = weights && !strncmp(weights, "portable", 8);
    for (int i = 0; ok && i < graph_nparams(n->graph); i++) ok = load_param(n, p, i, portable);
    params_changed(n->weights);
    return ok;
}

void gnet_close(struct gnet *n)
{
    if (n->weights) params_free(n->weights);
    if (n->graph) graph_free(n->graph);
}

/* ---- layouts and device --------------------------------------------------------------------------------------------------------------- */

void nhwc_from_nchw(const struct net_config *c, const double *in, double *out, size_t n)
{
    size_t hw = (size_t)c->resolution * (size_t)c->resolution, ch = (size_t)c->in_channels;
    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; k < ch; k++)
            for (size_t p = 0; p < hw; p++) out[(i * hw + p) * ch + k] = in[(i * ch + k) * hw + p];
}

void nchw_from_nhwc(const struct net_config *c, const double *in, double *out, size_t n)
{
    size_t hw = (size_t)c->resolution * (size_t)c->resolution, ch = (size_t)c->in_channels;
    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; k < ch; k++)
            for (size_t p = 0; p < hw; p++) out[(i * ch + k) * hw + p] = in[(i * hw + p) * ch + k];
}

void device_put(struct golden *g, float *dev, const double *x, size_t n)
{
    float *f = mem_array(n ? n : 1, sizeof(float));
    for (size_t i = 0; i < n; i++) f[i] = (float)x[i];
    g->k->upload(g->dev, dev, f, n * sizeof(float));
    mem_free(f);
}

float *device_new(struct golden *g, const double *x, size_t n)
{
    float *dev = g->k->alloc(g->dev, n * sizeof(float));
    if (x) device_put(g, dev, x, n);
    return dev;
}

void gnet_upload(const struct gnet *net, float *dev, const double *nchw, size_t n)
{
    double *nhwc = mem_array(n * net->per, sizeof(double));
    nhwc_from_nchw(&net->c, nchw, nhwc, n);
    device_put(net->g, dev, nhwc, n * net->per);
    mem_free(nhwc);
}

static double *download(struct golden *g, const float *dev, size_t n)
{
    float *f = mem_array(n, sizeof(float));
    double *x = mem_array(n, sizeof(double));
    g->k->download(g->dev, f, dev, n * sizeof(float));
    for (size_t i = 0; i < n; i++) x[i] = f[i];
    mem_free(f);
    return x;
}

double *gnet_download(const struct gnet *net, const float *dev, size_t n)
{
    double *nhwc = download(net->g, dev, n * net->per), *nchw = mem_array(n * net->per, sizeof(double));
    nchw_from_nhwc(&net->c, nhwc, nchw, n);
    mem_free(nhwc);
    return nchw;
}

/* n rows of x, which has `have` values: one row stands for all of them, as in the published modules. Takes x. */
static double *rows_of(struct part *p, const char *what, double *x, size_t have, size_t n, size_t width)
{
    if (!x || have == n * width) return x;
    double *all = mem_array(n * width, sizeof(double));
    if (have != width) part_fail(p, "%zu values of %s for %zu images", have, what, n);
    for (size_t i = 0; i < n * width && have == width; i++) all[i] = x[i % width];
    mem_free(x);
    return all;
}

double *gnet_labels(struct part *p, const struct gnet *net, size_t n)
{
    size_t have = 0, width = (size_t)net->c.label_dim;
    if (!n || !width) return NULL;
    double *labels = take(p->f, &have, "in/class_labels");
    if (!labels) labels = take(p->f, &have, "in/labels");
    return labels ? rows_of(p, "class labels", labels, have, n, width) : mem_array(n * width, sizeof(double));
}

/* ---- gradients ---------------------------------------------------------------------------------------------------------------------------- */

static bool listed(const json_t *names, const char *name)
{
    for (size_t i = 0; i < json_array_size(names); i++) {
        if (!strcmp(json_string_value(json_array_get(names, i)), name)) return true;
    }
    return false;
}

/* Sum, norm, first and last value of a tensor: the sum's bound grows with the root of its terms. */
static void compare_stat(struct part *p, const char *kind, const char *group, const struct param_info *info,
                         const double *got, double noise)
{
    size_t n = 0;
    double *want = need(p, &n, "%s/%s", group, info->name);
    if (!want || n != 4) {
        part_fail(p, "%s/%s has %zu values", group, info->name, n);
        mem_free(want);
        return;
    }
    double sum = 0, squares = 0, bound = bound_factor * noise * want[1];
    for (size_t i = 0; i < info->count; i++) {
        sum += got[i];
        squares += got[i] * got[i];
    }
    double stat[4] = {sum, sqrt(squares), got[0], got[info->count - 1]};
    part_close(p, kind, info->name, stat, want, 1, bound * sqrt((double)info->count));
    p->tensors--;
    part_close(p, kind, info->name, stat + 1, want + 1, 3, bound);
    mem_free(want);
}

void gnet_compare_weights(struct part *p, const struct gnet *net, const char *prefix)
{
    double noise = bound_factor * noise_floor(0);
    for (int i = 0; i < graph_nparams(net->graph); i++) {
        const struct param_info *info = graph_param_info(net->graph, i);
        size_t n = info->count;
        if (info->buffer || !info->ndim) continue;
        float *values = mem_array(n, sizeof(float));
        double *got = mem_array(n, sizeof(double)), *want = take(p->f, NULL, "%sparam_after/%s", prefix, info->name);
        char group[64];
        params_get(net->weights, i, values);
        for (size_t j = 0; j < n; j++) got[j] = values[j];
        snprintf(group, sizeof group, "%sparam_after_stat", prefix);
        if (want) part_close(p, "normalised weight", info->name, got, want, n, noise * max_abs(want, n));
        else compare_stat(p, "normalised weight", group, info, got, noise_floor(0));
        mem_free(want);
        mem_free(got);
        mem_free(values);
    }
}

static bool all_zero(const double *x, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (x[i] != 0) return false;
    }
    return true;
}

/* The largest gradient of a tensor without dimensions: what a gain's own, a sum over all values of a layer, is rounded like. */
static double largest_gain(struct part *p, const struct gnet *net, const char *prefix)
{
    double most = 0;
    for (int i = 0; i < graph_nparams(net->graph); i++) {
        const struct param_info *info = graph_param_info(net->graph, i);
        double *want = info->buffer || info->ndim ? NULL : take(p->f, NULL, "%sgrad/%s", prefix, info->name);
        if (want) most = fmax(most, max_abs(want, 1));
        mem_free(want);
    }
    return most;
}

void gnet_compare_grads(struct part *p, const struct gnet *net, const float *grad, const char *prefix,
                        double f32_vs_f64, const json_t *nonfinite)
{
    int skipped = 0;
    double noise = noise_floor(f32_vs_f64), gains = noise_floor(0) * largest_gain(p, net, prefix);
    for (int i = 0; i < graph_nparams(net->graph); i++) {
        const struct param_info *info = graph_param_info(net->graph, i);
        size_t n = info->count;
        if (info->buffer) continue;
        float *f = mem_array(n, sizeof(float));
        double *got = mem_array(n, sizeof(double)), *want = take(p->f, NULL, "%sgrad64/%s", prefix, info->name);
        double *f32 = take(p->f, NULL, "%sgrad/%s", prefix, info->name);
        arena_get(net->graph, net->g->k, net->g->dev, grad, i, f);
        for (size_t j = 0; j < n; j++) got[j] = f[j];
        if (listed(nonfinite, info->name)) {
            skipped++;
            for (size_t j = 0; j < n; j++) {
                if (!isfinite(got[j])) part_fail(p, "gradient of %s is not finite", info->name);
            }
            p->values += (long)n;
        } else if (want || f32) {
            const double *ref = want ? want : f32;
            double unit = fmax(noise * max_abs(ref, n), info->ndim ? 0 : gains);
            part_close(p, "gradient", info->name, got, ref, n, bound_factor * unit);
        } else if ((*prefix || !has_tensor(p->f, "gradstat/%s", info->name)) && !all_zero(got, n)) {
            /* a layer of an input that was not given has no published gradient at all; ours is then zero */
            part_fail(p, "no %sgrad/%s", prefix, info->name);
        }
        if (!*prefix && has_tensor(p->f, "gradstat/%s", info->name))
            compare_stat(p, "gradient statistic", "gradstat", info, got, noise);
        mem_free(f);
        mem_free(got);
        mem_free(want);
        mem_free(f32);
    }
    if (skipped) part_note(p, "%d tensors not compared: the published gradient is not finite", skipped);
}

/* ---- the family -------------------------------------------------------------------------------------------------------------------------------- */

static void check_parameters(struct gfile *f, const struct gnet *net)
{
    struct part p;
    json_t *order = meta_json(f, "param_order"), *buffers = meta_json(f, "buffers"),
           *count = meta_json(f, "param_count");
    size_t nth = 0, nbuffers = 0;
    part_begin(&p, f, "parameters");
    for (int i = 0; i < graph_nparams(net->graph); i++) {
        const struct param_info *info = graph_param_info(net->graph, i);
        if (info->buffer) {
            nbuffers++;
            if (!listed(buffers, info->name)) part_fail(&p, "%s is no buffer of the published module", info->name);
            continue;
        }
        const char *want = json_string_value(json_array_get(order, nth++));
        part_same(&p, "name", "parameter", info->name, want ? want : "(none)");
        p.tensors++;
    }
    if (nth != json_array_size(order)) part_fail(&p, "%zu parameters instead of %zu", nth, json_array_size(order));
    if (nbuffers != json_array_size(buffers))
        part_fail(&p, "%zu buffers instead of %zu", nbuffers, json_array_size(buffers));
    double ours = (double)graph_param_count(net->graph), theirs = json_number_value(count);
    part_equal(&p, "count", "elements", &ours, &theirs, 1);
    p.tensors--;
    json_decref(order);
    json_decref(buffers);
    json_decref(count);
    part_end(&p);
}

struct inputs {
    size_t n; /* images */
    double *x, *sigma, *w, *labels, *augment;
    double *w_logvar; /* NULL: the network has no such output */
};

static void set_inputs(const struct gnet *net, struct program *prog, const struct inputs *in)
{
    struct golden *g = net->g;
    gnet_upload(net, program_input(prog, "x"), in->x, in->n);
    device_put(g, program_input(prog, "sigma"), in->sigma, in->n);
    size_t labels = in->n * (size_t)net->c.label_dim, augment = in->n * (size_t)net->c.augment_dim;
    if (labels) device_put(g, program_input(prog, "labels"), in->labels, labels);
    if (augment && in->augment) device_put(g, program_input(prog, "augment"), in->augment, augment);
    if (augment && !in->augment) g->k->fill(g->dev, program_input(prog, "augment"), 0, augment);
}

static struct program *forward(struct part *p, const struct gnet *net, const struct inputs *in,
                               struct program_opts opts)
{
    struct program *prog = NULL;
    struct run_ctx ctx = {0};
    opts.batch = (int)in->n;
    if (program_new(&prog, net->graph, net->g->k, net->g->dev, &opts)) {
        part_fail(p, "%s", err_text());
        return NULL;
    }
    set_inputs(net, prog, in);
    program_forward(prog, net->weights, &ctx);
    return prog;
}

/* out64/NAME by the rule, and out/NAME, the float32 run, in the same part. */
static void compare_output(struct part *p, const double *got, const char *name, size_t n, double f32_vs_f64)
{
    size_t n64 = n, n32 = n;
    double noise = noise_floor(f32_vs_f64), *want = take(p->f, &n64, "out64/%s", name);
    double *f32 = need(p, &n32, "out/%s", name);
    if (n64 != n || n32 != n) {
        part_fail(p, "%s has %zu values instead of %zu", name, n64 != n ? n64 : n32, n);
    } else if (want) {
        double most = max_abs(want, n);
        part_close(p, "output", name, got, want, n, bound_factor * noise * most);
        if (f32) part_close(p, "output", name, got, f32, n, (bound_factor + 1) * noise * most);
    } else if (f32) {
        part_close(p, "output", name, got, f32, n, bound_factor * noise * max_abs(f32, n));
    }
    mem_free(want);
    mem_free(f32);
}

static void check_forward(struct gfile *f, const struct gnet *net, const struct inputs *in, const char *name, bool eval,
                          double f32_vs_f64)
{
    struct part p;
    part_begin(&p, f, "%s", name);
    if (!has_tensor(f, "out/%s", name)) {
        part_fail(&p, "no out/%s", name);
    } else {
        struct program *prog =
            forward(&p, net, in, (struct program_opts){.eval_form = eval, .only = strcmp(name, "F") ? "D" : "F"});
        if (prog) {
            double *got = gnet_download(net, program_output(prog, strcmp(name, "F") ? "D" : "F"), in->n);
            compare_output(&p, got, name, in->n * net->per, f32_vs_f64);
            mem_free(got);
        }
        program_free(prog);
    }
    part_end(&p);
}

static void check_c_noise(struct gfile *f, const struct gnet *net, const struct inputs *in)
{
    struct part p;
    struct golden *g = net->g;
    part_begin(&p, f, "c_noise");
    size_t have = 0;
    double *want = need(&p, &have, "out/c_noise");
    want = rows_of(&p, "c_noise", want, have, in->n, 1);
    float *sigma = device_new(g, in->sigma, in->n), *out[4];
    for (int i = 0; i < 4; i++) out[i] = device_new(g, NULL, in->n);
    g->k->precond_coeffs(g->dev, sigma, (int)in->n, (float)net->c.sigma_data, 0, out[0], out[1], out[2], out[3]);
    double *got = download(g, out[3], in->n);
    if (want)
        part_close(&p, "output", "c_noise", got, want, in->n, bound_factor * noise_floor(0) * max_abs(want, in->n));
    for (int i = 0; i < 4; i++) g->k->free(g->dev, out[i]);
    g->k->free(g->dev, sigma);
    mem_free(got);
    mem_free(want);
    part_end(&p);
}

/* got: the outputs, d [n] and logvar [in->n] or NULL; noise: relative to the largest D, logvar */
static void compare_loss(struct gfile *f, const struct inputs *in, const double *d, size_t n, const double *logvar,
                         const json_t *f32_vs_f64)
{
    struct part p;
    double loss = 0, weight = 0, squares = 0, noise = noise_floor(json_num(f32_vs_f64, "D", 0));
    part_begin(&p, f, "loss");
    double *want = need(&p, NULL, "out64/loss"), *f32 = need(&p, NULL, "out/loss"), *d64 = take(f, NULL, "out64/D");
    if (!d64) d64 = take(f, NULL, "out/D");
    for (size_t i = 0; i < n; i++) {
        loss += in->w[i] * d[i];
        weight += in->w[i] * in->w[i];
    }
    for (size_t i = 0; logvar && i < in->n; i++) {
        loss += in->w_logvar[i] * logvar[i];
        squares += in->w_logvar[i] * in->w_logvar[i];
    }
    if (want && f32 && d64) {
        double bound = bound_factor * noise * max_abs(d64, n) * sqrt(weight);
        if (logvar)
            bound +=
                bound_factor * noise_floor(json_num(f32_vs_f64, "logvar", 0)) * max_abs(logvar, in->n) * sqrt(squares);
        part_close(&p, "loss", "loss", &loss, want, 1, bound);
        part_close(&p, "loss", "loss", &loss, f32, 1, bound + noise_floor(0) * fabs(*want) * 20);
    }
    mem_free(want);
    mem_free(f32);
    mem_free(d64);
    part_end(&p);
}

/* The uncertainty head: its value, and where its gradient comes from. The caller frees the result. */
static double *check_logvar(struct gfile *f, const struct gnet *net, const struct inputs *in, struct program *prog,
                            double f32_vs_f64)
{
    struct part p;
    part_begin(&p, f, "logvar");
    double *got = download(net->g, program_output(prog, "logvar"), in->n);
    compare_output(&p, got, "logvar", in->n, f32_vs_f64);
    device_put(net->g, program_output_grad(prog, "logvar"), in->w_logvar, in->n);
    part_end(&p);
    return got;
}

/* The forward pass in training mode begins with the forced normalisation. */
static void check_forced_norm(struct gfile *f, struct gnet *net)
{
    struct part p;
    part_begin(&p, f, "forced normalisation");
    params_force_norm(net->weights);
    gnet_compare_weights(&p, net, "");
    part_end(&p);
}

static void check_backward(struct gfile *f, const struct gnet *net, const struct inputs *in, const json_t *noise)
{
    struct part p;
    struct golden *g = net->g;
    struct run_ctx ctx = {0};
    size_t n = in->n * net->per;
    float *grad = device_new(g, NULL, graph_arena_floats(net->graph));
    part_begin(&p, f, "gradients");
    struct program_opts opts = {.grad = GRAD_ALL, .only = in->w_logvar ? "D,logvar" : "D"};
    struct program *prog = forward(&p, net, in, opts);
    if (!prog) {
        part_end(&p);
        goto done;
    }
    double *d = gnet_download(net, program_output(prog, "D"), in->n);
    double *logvar = in->w_logvar ? check_logvar(f, net, in, prog, json_num(noise, "logvar", 0)) : NULL;
    gnet_upload(net, program_output_grad(prog, "D"), in->w, in->n);
    program_backward(prog, net->weights, &ctx, grad);
    gnet_compare_grads(&p, net, grad, "", json_num(noise, "grad_max", 0), NULL);
    part_end(&p);

    compare_loss(f, in, d, n, logvar, noise);
    mem_free(d);
    mem_free(logvar);

    part_begin(&p, f, "gradient of x");
    double *dx = gnet_download(net, program_input_grad(prog, "x"), in->n), *want = take(f, NULL, "grad_in64/x");
    double *f32 = need(&p, NULL, "grad_in/x"), floor_x = noise_floor(json_num(noise, "grad_x", 0));
    const double *ref = want ? want : f32;
    if (ref) part_close(&p, "gradient of x", "x", dx, ref, n, bound_factor * floor_x * max_abs(ref, n));
    if (want && f32) part_close(&p, "gradient of x", "x", dx, f32, n, (bound_factor + 1) * floor_x * max_abs(want, n));
    mem_free(dx);
    mem_free(want);
    mem_free(f32);
    part_end(&p);
done:
    g->k->free(g->dev, grad);
    program_free(prog);
}

void check_network(struct gfile *f)
{
    struct part p;
    struct gnet net;
    struct inputs in = {0};
    json_t *noise = meta_json(f, "f32_vs_f64");
    part_begin(&p, f, "network");
    bool ok = gnet_open(&net, &p, 0.5);
    size_t nx = 0, nw = 0, nsigma = 0, naugment = 0, nlogvar = 0;
    in.x = need(&p, &nx, "in/x");
    in.w = need(&p, &nw, "in/w");
    in.sigma = need(&p, &nsigma, "in/sigma");
    in.augment = take(f, &naugment, "in/augment_labels");
    if (ok && net.c.logvar) in.w_logvar = need(&p, &nlogvar, "in/w_logvar");
    if (ok) {
        in.n = nx / net.per;
        if (!in.n || nw != nx || in.n * net.per != nx) part_fail(&p, "in/x and in/w do not fit the configuration");
        in.sigma = rows_of(&p, "sigma", in.sigma, nsigma, in.n, 1);
        in.augment = rows_of(&p, "augmentation labels", in.augment, naugment, in.n, (size_t)net.c.augment_dim);
        in.w_logvar = rows_of(&p, "w_logvar", in.w_logvar, nlogvar, in.n, 1);
        in.labels = gnet_labels(&p, &net, in.n);
    }
    if (ok && !p.failed) {
        check_parameters(f, &net);
        check_written(f, &net);
        const char *precond = st_meta(f->st, "precond"); /* EDM's has one form for training and evaluation */
        check_forward(f, &net, &in, "D_eval", !precond || strcmp(precond, "EDMPrecond") != 0,
                      json_num(noise, "D_eval", 0));
        if (graph_has_forced_norm(net.graph)) check_forced_norm(f, &net);
        check_forward(f, &net, &in, "D", false, json_num(noise, "D", 0));
        check_forward(f, &net, &in, "F", false, json_num(noise, "D", 0));
        check_c_noise(f, &net, &in);
        check_backward(f, &net, &in, noise);
    } else {
        part_end(&p);
    }
    gnet_close(&net);
    double *const mine[] = {in.x, in.sigma, in.w, in.labels, in.augment, in.w_logvar};
    for (size_t i = 0; i < ARRAY_LEN(mine); i++) mem_free(mine[i]);
    json_decref(noise);
}

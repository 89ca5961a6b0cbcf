/* LPIPS as two programs on one parameter set: the first image's keeps what its gradient needs, the second's does not. A call goes through them
 * a few images at a time, because at 224 x 224 one image's features are a hundred megabytes. */
#include "core/metrics/lpips.h"

#include <assert.h>
#include <string.h>

#include "core/metrics/weights.h"
#include "core/nets/features.h"

enum { AT_ONCE = 4, RESIZE_BELOW = 256, RESIZE_TO = 224 };

static const char *const output_name[VGG_STAGES] = {"f0", "f1", "f2", "f3", "f4"};

struct lpips {
    int batch, at_once;
    size_t per;
    char sha[SHA256_TEXT];
    const struct kernels *k;
    struct kdev *dev;
    struct vgg_config vgg;
    struct graph *graph;
    struct params *params;
    struct program *first, *second;
    int pixels[VGG_STAGES];  /* of each layer */
    float *lin[VGG_STAGES];  /* device */
    double *sums;            /* [at_once], device */
    struct weights *file[2]; /* while loading: lpips-vgg, vgg16 or NULL */
};

/* ---- weights -------------------------------------------------------------------------------------------------------- */

/* The file that holds a tensor, or NULL. */
static const struct weights *holder(const struct lpips *l, const char *name, int64_t dims[8], int *ndim)
{
    for (int i = 0; i < 2; i++)
        if (l->file[i] && (*ndim = weights_dims(l->file[i], name, dims)) >= 0) return l->file[i];
    return NULL;
}

static err_t missing(const struct lpips *l, const char *name)
{
    return fail(ERR_NO_DATA,
                "LPIPS: no tensor '%s' in %s%s%s; `ect weights get lpips-vgg` gets VGG16 and LPIPS's own weights", name,
                weights_path(l->file[0]), l->file[1] ? " and " : "", l->file[1] ? weights_path(l->file[1]) : "");
}

static err_t files_open(struct lpips *l, const struct lpips_opts *o)
{
    char *path = NULL, *second = NULL;
    err_t err = ERR_OK;
    if (o->path) path = mem_strdup(o->path);
    else TRY(weights_find("lpips-vgg", &path));
    TRYD(weights_open(&l->file[0], path));
    if (!o->path && !weights_find("vgg16", &second)) TRYD(weights_open(&l->file[1], second));
done:
    mem_free(path);
    mem_free(second);
    return err;
}

/* Widths of the five stages, from the shapes of their first convolutions. */
static err_t widths_read(struct lpips *l)
{
    for (int s = 0; s < VGG_STAGES; s++) {
        char name[64];
        int64_t dims[8];
        int ndim;
        snprintf(name, sizeof name, "features.%d.weight", vgg_index(s, 0));
        if (!holder(l, name, dims, &ndim)) return missing(l, name);
        if (ndim != 4 || dims[0] < 1 || dims[0] > 4096)
            return fail(ERR_FORMAT, "LPIPS: '%s' is no convolution of VGG16", name);
        l->vgg.width[s] = (int)dims[0];
    }
    return ERR_OK;
}

static err_t params_read(struct lpips *l)
{
    for (int i = 0; i < graph_nparams(l->graph); i++) {
        const struct param_info *p = graph_param_info(l->graph, i);
        int64_t dims[8];
        int ndim;
        if (p->buffer) continue;
        const struct weights *f = holder(l, p->name, dims, &ndim);
        if (!f) return missing(l, p->name);
        bool same = ndim == p->ndim;
        for (int j = 0; same && j < ndim; j++) same = dims[j] == p->dims[j];
        if (!same) return fail(ERR_FORMAT, "%s: '%s' has not the shape that VGG16 has there", weights_path(f), p->name);
        float *v = mem_array(p->count, sizeof *v);
        err_t err = weights_get(f, p->name, v, p->count);
        if (!err) params_set(l->params, i, v);
        mem_free(v);
        TRY(err);
    }
    return ERR_OK;
}

static err_t lin_read(struct lpips *l)
{
    for (int s = 0; s < VGG_STAGES; s++) {
        char name[64];
        int64_t dims[8];
        int ndim;
        size_t n = (size_t)l->vgg.width[s];
        snprintf(name, sizeof name, "lin%d.weight", s);
        const struct weights *f = holder(l, name, dims, &ndim);
        if (!f) {
            snprintf(name, sizeof name, "lin%d.model.1.weight", s);
            f = holder(l, name, dims, &ndim);
        }
        if (!f) return missing(l, name);
        float *v = mem_array(n, sizeof *v);
        err_t err = weights_get(f, name, v, n);
        l->lin[s] = l->k->alloc(l->dev, n * sizeof *v);
        if (l->lin[s] && !err) l->k->upload(l->dev, l->lin[s], v, n * sizeof *v);
        mem_free(v);
        TRY(err);
        if (!l->lin[s]) return fail(ERR_DEVICE_MEM, "LPIPS: no device memory");
    }
    return ERR_OK;
}

static void identify(struct lpips *l)
{
    struct text t = {0};
    text_addf(&t, "lpips@1 pool=%d side=%d %s %s", (int)l->vgg.pool, l->vgg.side, weights_sha(l->file[0]),
              l->file[1] ? weights_sha(l->file[1]) : "-");
    sha256_text(t.s, t.len, l->sha);
    text_done(&t);
}

/* ---- life ------------------------------------------------------------------------------------------------------------ */

static err_t programs_new(struct lpips *l)
{
    struct program_opts o = {.batch = l->at_once, .grad = GRAD_INPUTS};
    TRY(program_new(&l->first, l->graph, l->k, l->dev, &o));
    o.grad = GRAD_NONE;
    TRY(program_new(&l->second, l->graph, l->k, l->dev, &o));
    TRY(program_bind(l->first, l->params));
    TRY(program_bind(l->second, l->params));
    for (int s = 0; s < VGG_STAGES; s++)
        l->pixels[s] = (int)(graph_node_floats(l->graph, output_name[s]) / (size_t)l->vgg.width[s]);
    l->sums = l->k->alloc(l->dev, (size_t)l->at_once * sizeof *l->sums);
    return l->sums ? ERR_OK : fail(ERR_DEVICE_MEM, "LPIPS: no device memory");
}

err_t lpips_new(struct lpips **out, int h, int w, int c, int batch, const struct lpips_opts *o, const struct kernels *k,
                struct kdev *dev)
{
    static const struct lpips_opts usual = {.pool = POOL_MEAN};
    err_t err = ERR_OK;
    struct lpips *l = mem_alloc(sizeof *l);
    *out = NULL;
    assert(batch > 0);
    if (!o) o = &usual;
    *l = (struct lpips){.batch = batch, .k = k, .dev = dev, .per = (size_t)h * (size_t)w * (size_t)c};
    l->at_once = batch < AT_ONCE ? batch : AT_ONCE;
    l->vgg = (struct vgg_config){.h = h, .w = w, .c = c, .pool = o->pool};
    l->vgg.side = o->side > 0 ? o->side : o->side == 0 && w < RESIZE_BELOW ? RESIZE_TO : 0;
    TRYD(files_open(l, o));
    TRYD(widths_read(l));
    l->graph = graph_new();
    TRYD(vgg_build(l->graph, &l->vgg));
    TRYD(params_new(&l->params, l->graph, k, dev));
    TRYD(params_read(l));
    TRYD(lin_read(l));
    TRYD(programs_new(l));
    identify(l);
done:
    for (int i = 0; i < 2; i++) {
        weights_close(l->file[i]);
        l->file[i] = NULL;
    }
    if (err) lpips_free(l);
    else *out = l;
    return err;
}

void lpips_free(struct lpips *l)
{
    if (!l) return;
    program_free(l->first);
    program_free(l->second);
    params_free(l->params);
    if (l->graph) graph_free(l->graph);
    for (int s = 0; s < VGG_STAGES; s++)
        if (l->lin[s]) l->k->free(l->dev, l->lin[s]);
    if (l->sums) l->k->free(l->dev, l->sums);
    mem_free(l);
}

const char *lpips_sha(const struct lpips *l)
{
    return l->sha;
}

double lpips_flops(const struct lpips *l, bool grad)
{
    struct flops f;
    graph_flops(l->graph, &f);
    return flops_total(&f) * (grad ? 3 : 2); /* the gradient of inputs alone costs one more forward */
}

/* ---- one call ---------------------------------------------------------------------------------------------------------- */

static void some(struct lpips *l, const float *x, const float *y, int n, double *value, float *grad)
{
    struct run_ctx c = {0};
    size_t count = (size_t)n * l->per;
    double zero[AT_ONCE] = {0};
    l->k->copy(l->dev, program_input(l->first, "x"), x, count);
    l->k->copy(l->dev, program_input(l->second, "x"), y, count);
    program_forward(l->first, l->params, &c);
    program_forward(l->second, l->params, &c);
    l->k->upload(l->dev, l->sums, zero, (size_t)n * sizeof *zero);
    for (int s = 0; s < VGG_STAGES; s++)
        l->k->lpips_layer(l->dev, program_output(l->first, output_name[s]), program_output(l->second, output_name[s]),
                          l->lin[s], l->sums, grad ? program_output_grad(l->first, output_name[s]) : NULL, n,
                          l->pixels[s], l->vgg.width[s]);
    l->k->download(l->dev, value, l->sums, (size_t)n * sizeof *value);
    if (!grad) return;
    program_backward(l->first, l->params, &c, NULL);
    l->k->copy(l->dev, grad, program_input_grad(l->first, "x"), count);
}

void lpips_run(struct lpips *l, const float *x, const float *y, int n, double *value, float *grad)
{
    assert(n > 0 && n <= l->batch);
    for (int at = 0; at < n; at += l->at_once) {
        size_t from = (size_t)at * l->per;
        int take = n - at < l->at_once ? n - at : l->at_once;
        some(l, x + from, y + from, take, value + at, grad ? grad + from : NULL);
    }
}

/* The network's shape is read off its weights; their file's hash is the extractor's identity. */
#include "core/metrics/classifier.h"

#include <string.h>

#include "core/io/safetensors.h"
#include "core/metrics/weights.h"
#include "core/nets.h"

static const struct spaces_of {
    const char *name, *file;
    int h, w, c;
    bool decides;
} spaces[] = {{"digits", "data/digits-classifier.safetensors", 8, 8, 1, false},
              {"digits-classes", "data/digits-classifier.safetensors", 8, 8, 1, true}};

struct classifier {
    const struct spaces_of *of;
    int batch, per, dim;
    const struct kernels *k;
    struct kdev *dev;
    struct graph *graph;
    struct params *params;
    struct program *prog;
    float *host; /* [batch, per] */
};

static const struct spaces_of *find(const char *name)
{
    for (size_t i = 0; i < ARRAY_LEN(spaces); i++)
        if (!strcmp(spaces[i].name, name)) return &spaces[i];
    return NULL;
}

bool classifier_exists(const char *name)
{
    return find(name) != NULL;
}

static err_t shape_check(const struct spaces_of *s, int h, int w, int c)
{
    if (h == s->h && w == s->w && c == s->c) return ERR_OK;
    return fail(ERR_USAGE, "the space '%s' is of images of %dx%dx%d, not of %dx%dx%d: fd_random, fd_pixel are of any",
                s->name, s->h, s->w, s->c, h, w, c);
}

err_t classifier_identity(const char *name, int h, int w, int c, char sha[SHA256_TEXT])
{
    const struct spaces_of *s = find(name);
    char file[SHA256_TEXT], *path;
    struct text t = {0};
    TRY(shape_check(s, h, w, c));
    TRY(share_find(s->file, &path));
    err_t err = weights_file_sha(path, file);
    mem_free(path);
    if (err) return err;
    text_addf(&t, "classifier@1: convnet of x = u8 / 127.5 - 1 [%d, %d, %d], weights %s, %s\n", h, w, c, file,
              s->decides ? "1 at the largest logit" : "features");
    sha256_text(t.s, t.len, sha);
    text_done(&t);
    return ERR_OK;
}

/* The configuration that has these weights. */
static err_t config_of(const struct st_file *f, const struct spaces_of *s, struct net_config *c)
{
    const struct st_tensor *out = st_find(f, "model.out.weight");
    *c = (struct net_config){.family = "convnet", .resolution = s->h, .in_channels = s->c};
    for (int i = 0; i < NET_LEVELS; i++) {
        char name[40];
        snprintf(name, sizeof name, "model.conv%d.weight", i);
        const struct st_tensor *t = st_find(f, name);
        if (!t) break;
        if (t->ndim != 4 || t->dims[0] < 1 || t->dims[0] > 4096) return fail(ERR_FORMAT, "odd shape of %s", name);
        if (!i) c->width = (int)t->dims[0];
        c->mult[c->nmult++] = (int)t->dims[0] / c->width;
    }
    if (!c->nmult || !out || out->ndim != 2 || out->dims[0] < 2 || out->dims[0] > 4096)
        return fail(ERR_FORMAT, "no weights of a convnet");
    c->label_dim = (int)out->dims[0];
    return ERR_OK;
}

static err_t fill_params(struct classifier *x, const struct st_file *f)
{
    for (int i = 0; i < graph_nparams(x->graph); i++) {
        const struct param_info *p = graph_param_info(x->graph, i);
        const struct st_tensor *t = st_find(f, p->name);
        if (!t || t->count != p->count) return fail(ERR_FORMAT, "no tensor %s of %zu values", p->name, p->count);
        float *v = mem_array(p->count, sizeof *v);
        err_t err = st_read_f32(t, v, p->count);
        if (!err) params_set(x->params, i, v);
        mem_free(v);
        if (err) return err;
    }
    params_changed(x->params);
    return ERR_OK;
}

static err_t load(struct classifier *x, const struct st_file *f)
{
    struct net_config c;
    TRY(config_of(f, x->of, &c));
    x->graph = graph_new();
    TRY(net_build(x->graph, &c));
    x->dim = (int)graph_node_floats(x->graph, x->of->decides ? "logits" : "features");
    TRY(params_new(&x->params, x->graph, x->k, x->dev));
    TRY(fill_params(x, f));
    struct program_opts o = {.batch = x->batch, .only = x->of->decides ? "logits" : "features"};
    TRY(program_new(&x->prog, x->graph, x->k, x->dev, &o));
    return program_bind(x->prog, x->params);
}

err_t classifier_new(struct classifier **out, const char *name, int h, int w, int c, int batch, const struct kernels *k,
                     struct kdev *dev)
{
    const struct spaces_of *s = find(name);
    struct st_file *f;
    char *path;
    *out = NULL;
    TRY(shape_check(s, h, w, c));
    TRY(share_find(s->file, &path));
    struct classifier *x = mem_alloc(sizeof *x);
    *x = (struct classifier){.of = s, .batch = batch, .per = h * w * c, .k = k, .dev = dev};
    x->host = mem_array((size_t)batch * (size_t)x->per, sizeof *x->host);
    err_t err = st_open(&f, path);
    if (!err) {
        err = load(x, f);
        if (err) err = fail_in(err, "%s", path);
        st_close(f);
    }
    mem_free(path);
    if (err) classifier_free(x);
    else *out = x;
    return err;
}

void classifier_free(struct classifier *x)
{
    if (!x) return;
    if (x->prog) program_free(x->prog);
    if (x->params) params_free(x->params);
    if (x->graph) graph_free(x->graph);
    mem_free(x->host);
    mem_free(x);
}

int classifier_dim(const struct classifier *x)
{
    return x->dim;
}

/* [n, dim] logits become 1 at the largest of each row (the first of equals), 0 elsewhere. */
static void decide(float *v, int n, int dim)
{
    for (float *row = v; row < v + (ptrdiff_t)n * dim; row += dim) {
        int best = 0;
        for (int k = 1; k < dim; k++)
            if (row[k] > row[best]) best = k;
        for (int k = 0; k < dim; k++) row[k] = k == best;
    }
}

err_t classifier_run(struct classifier *x, const uint8_t *px, int n, float *out)
{
    size_t count = (size_t)n * (size_t)x->per;
    for (size_t i = 0; i < count; i++) x->host[i] = (float)(px[i] / 127.5 - 1);
    x->k->upload(x->dev, program_input(x->prog, "x"), x->host, count * sizeof(float));
    program_forward(x->prog, x->params, &(struct run_ctx){0});
    x->k->download(x->dev, out, program_output(x->prog, x->of->decides ? "logits" : "features"),
                   (size_t)n * (size_t)x->dim * sizeof(float));
    if (x->of->decides) decide(out, n, x->dim);
    return ERR_OK;
}

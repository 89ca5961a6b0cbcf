/* Weights as the trainer and as `ect export` write them, held against what the published module's load_state_dict takes: the same names,
 * parameters in the same order, the same shapes, and the values that were loaded. An export holds nothing else. */
#include "tests/golden/golden.h"

#include <string.h>
#include <unistd.h>

#include "core/export.h"
#include "core/io/safetensors.h"
#include "core/train_ckpt.h"

/* The trainer's own entries beside the network's. */
static bool is_state(const char *name)
{
    return !strncmp(name, "ema.", 4) || !strncmp(name, "optim.", 6) || !strncmp(name, "state.", 6);
}

static bool listed(const json_t *names, const char *name)
{
    for (size_t i = 0; i < json_array_size(names); i++)
        if (!strcmp(json_string_value(json_array_get(names, i)), name)) return true;
    return false;
}

static void compare_tensor(struct part *p, const struct st_tensor *t)
{
    char name[256];
    snprintf(name, sizeof name, "param/%s", t->name);
    const struct st_tensor *want = st_find(p->f->st, name);
    if (!want) return; /* made by the portable formula */
    bool same = t->dtype == ST_F32 && t->ndim == want->ndim;
    for (int i = 0; same && i < t->ndim; i++) same = t->dims[i] == want->dims[i];
    if (!same) {
        part_fail(p, "%s is written in another shape", t->name);
        return;
    }
    double *values = take(p->f, NULL, "%s", name), *got = mem_array(t->count, sizeof *got);
    if (st_read_f64(t, got, t->count)) part_fail(p, "%s", err_text());
    else part_equal(p, "parameter", t->name, got, values, t->count);
    mem_free(values);
    mem_free(got);
}

static void compare_file(struct part *p, const char *path, bool states)
{
    struct st_file *st;
    if (st_open(&st, path)) {
        part_fail(p, "%s", err_text());
        return;
    }
    json_t *order = meta_json(p->f, "param_order"), *buffers = meta_json(p->f, "buffers");
    size_t nth = 0, nbuffers = 0;
    for (int i = 0; i < st_count(st); i++) {
        const struct st_tensor *t = st_at(st, i);
        if (states && is_state(t->name)) continue;
        if (listed(buffers, t->name)) {
            nbuffers++;
        } else {
            const char *want = json_string_value(json_array_get(order, nth++));
            part_same(p, "name", "written parameter", t->name, want ? want : "(none)");
        }
        compare_tensor(p, t);
    }
    if (nth != json_array_size(order) || nbuffers != json_array_size(buffers))
        part_fail(p, "%zu parameters and %zu buffers are written, there are %zu and %zu", nth, nbuffers,
                  json_array_size(order), json_array_size(buffers));
    json_decref(order);
    json_decref(buffers);
    st_close(st);
}

void check_written(struct gfile *f, const struct gnet *net)
{
    struct part p;
    struct golden *g = net->g;
    char dir[] = "/tmp/ect-golden-XXXXXX", *path = NULL, *out = NULL;
    double totals = 0;
    struct spec spec;
    part_begin(&p, f, "written checkpoint");
    spec_defaults(&spec);
    size_t floats = graph_arena_floats(net->graph);
    float *m = device_new(g, NULL, floats), *v = device_new(g, NULL, floats);
    struct train_state s = {.graph = net->graph,
                            .kernels = g->k,
                            .dev = g->dev,
                            .weights = net->weights,
                            .m = m,
                            .v = v,
                            .totals = &totals,
                            .ntotals = 1,
                            .canon = "numerics=1\n",
                            .hash = "",
                            .sigma_data = net->c.sigma_data,
                            .batch = 1};
    struct export_about about = {.net = &net->c, .spec = &spec, .run = "golden", .weights = "raw"};
    if (!mkdtemp(dir)) {
        part_fail(&p, "no directory in /tmp");
        goto done;
    }
    out = mem_printf("%s/out.safetensors", dir);
    if (ckpt_write(&s, dir, &path)) part_fail(&p, "%s", err_text());
    else compare_file(&p, path, true);
    if (export_weights(out, net->graph, net->weights, &about)) part_fail(&p, "%s", err_text());
    else compare_file(&p, out, false);
    if (path) unlink(path);
    unlink(out);
    rmdir(dir);
done:
    mem_free(path);
    mem_free(out);
    g->k->free(g->dev, m);
    g->k->free(g->dev, v);
    part_end(&p);
}

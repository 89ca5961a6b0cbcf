/* flops: what one forward pass of a network costs, from its structure alone; nothing is run. */
#include <jansson.h>
#include <string.h>

#include "core/io/dataset.h"
#include "core/nets.h"
#include "core/spec.h"
#include "core/train.h"
#include "lua/script.h"
#include "runner/runner.h"

static err_t set_all(struct spec *s, const char *const *sets, int n)
{
    for (int i = 0; i < n; i++) {
        const char *eq = strchr(sets[i], '=');
        if (!eq) return fail(ERR_USAGE, "--set %s: not KEY=VALUE", sets[i]);
        char key[128];
        snprintf(key, sizeof key, "%.*s", (int)(eq - sets[i]), sets[i]);
        if (!strcmp(key, "net") && spec_preset(s, eq + 1)) continue;
        TRY(spec_set(s, key, eq + 1));
    }
    return ERR_OK;
}

/* From settings and their data set: a recipe's, or the defaults'. */
static err_t net_of_recipe(struct net_config *c, const char *recipe, const char *const *sets, int nsets)
{
    struct spec s;
    struct script *script = NULL;
    struct dataset *data = NULL;
    err_t err = ERR_OK;
    spec_defaults(&s);
    if (recipe) {
        TRYD(script_recipe(&script, recipe, sets, nsets, NULL));
        s = script_cell_at(script, script_ncells(script) - 1)->spec;
    } else {
        TRYD(set_all(&s, sets, nsets));
    }
    err = dataset_open(&data, s.data.s);
    if (err == ERR_NO_DATA && (data = dataset_shape_of(s.data.s))) err = ERR_OK;
    if (err) goto done;
    TRYD(train_net_config(&s, data, c));
done:
    dataset_free(data);
    script_close(script);
    return err;
}

static err_t net_of(struct net_config *c, const char *name, const char *const *sets, int nsets)
{
    const struct net_preset *p = name ? net_preset_find(name) : NULL;
    if (p) {
        struct spec s;
        spec_defaults(&s);
        net_config_to_spec(&p->config, &s);
        TRY(set_all(&s, sets, nsets));
        return net_config_from_spec(c, &s, p->config.resolution, p->config.in_channels,
                                    p->config.label_dim ? p->config.label_dim : 10, p->config.sigma_data);
    }
    const char *const *recipes, *names[128];
    int n = script_recipes(&recipes);
    size_t count = 0;
    for (int i = 0; i < n && count < ARRAY_LEN(names); i++) {
        if (name && !strcmp(name, recipes[i])) return net_of_recipe(c, name, sets, nsets);
        names[count++] = recipes[i];
    }
    if (!name) return net_of_recipe(c, NULL, sets, nsets);
    for (const struct net_preset *q = net_presets; q->name && count < ARRAY_LEN(names); q++) names[count++] = q->name;
    const char *near = nearest_name(name, names, count);
    if (near) return fail(ERR_USAGE, "unknown network %s; did you mean %s?", name, near);
    return fail(ERR_USAGE, "unknown network %s (`ect help recipes` lists networks and recipes)", name);
}

static void print_flops_json(const struct net_config *c, const struct flops *f, size_t params)
{
    json_t *b = json_pack("{s:f,s:f,s:f,s:f,s:f}", "linear", f->linear, "conv3x3", f->conv3x3, "conv1x1", f->conv1x1,
                          "resample_depthwise_conv", f->resample, "attention_matmul", f->attention);
    if (f->conv_other > 0) json_object_set_new(b, "conv_other", json_real(f->conv_other));
    const char *key;
    json_t *v;
    json_object_foreach(b, key, v) json_object_set_new(b, key, json_integer((json_int_t)json_real_value(v)));
    double total = flops_total(f);
    json_t *o = json_pack("{s:I,s:I,s:o,s:I,s:i,s:i}", "total_flops", (json_int_t)total, "total_flops_without_resample",
                          (json_int_t)(total - f->resample), "breakdown", b, "params", (json_int_t)params, "resolution",
                          c->resolution, "channels", c->in_channels);
    json_dumpf(o, stdout, JSON_INDENT(1));
    putchar('\n');
    json_decref(o);
}

static void print_flops(const char *name, const struct net_config *c, const struct flops *f, size_t params)
{
    const struct {
        const char *kind;
        double v;
    } rows[] = {{"linear", f->linear},         {"conv 3x3", f->conv3x3},    {"conv 1x1", f->conv1x1},
                {"conv other", f->conv_other}, {"attention", f->attention}, {"resample", f->resample}};
    double total = flops_total(f);
    char h[NUM_TEXT];
    printf("%s: %s, %dx%dx%d, width %d\n", name ? name : "network", c->family, c->resolution, c->resolution,
           c->in_channels, c->width);
    printf("parameters %15zu\n", params);
    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        if (rows[i].v > 0) printf("%-10s %15.0f  %5.2f %%\n", rows[i].kind, rows[i].v, 100 * rows[i].v / total);
    printf("%-10s %15.0f  = %s FLOPs for one image, one forward pass (2 per multiply-accumulate)\n", "total", total,
           human_count(h, total));
    printf("%-10s %15.0f\n", "", total - f->resample);
    printf("           (the second number leaves out resampling filters)\n");
}

static err_t flops_run(struct args *a)
{
    const char **sets, *name = a->npos ? a->pos[0] : NULL;
    int nsets = args_all(a, "set", &sets);
    struct net_config c;
    struct graph *g = NULL;
    err_t err = net_of(&c, name, sets, nsets);
    if (err) goto done;
    g = graph_new();
    TRYD(net_build(g, &c));
    struct flops f;
    graph_flops(g, &f);
    if (args_has(a, "json")) print_flops_json(&c, &f, graph_param_count(g));
    else print_flops(name, &c, &f, graph_param_count(g));
done:
    graph_free(g);
    mem_free(sets);
    return err;
}

static const struct opt flops_opts[] = {OPT_SET, OPT_JSON, OPT_END};
const struct command cmd_flops = {
    .name = "flops",
    .args = "[NET]",
    .help = "what one forward pass of a network costs, without running it",
    .max_pos = 1,
    .opts = flops_opts,
    .more = "NET is a network or recipe by name (`ect help recipes`); --set net.width=64 and the like change it.\n"
            "Without NET the settings' defaults are meant.",
    .run = flops_run};

/* Starting weights from files: published names behind any prefix, what is dropped, missing or of another shape. */
#include "tests/test.h"

#include "core/init.h"
#include "core/io/safetensors.h"
#include "core/nets.h"
#include "kernels/kernels.h"

static const struct net_config tiny = {.family = "songunet", /* the network of the published snapshot in tests/golden */
                                       .resolution = 8,
                                       .in_channels = 3,
                                       .width = 4,
                                       .mult = {1, 1},
                                       .nmult = 2,
                                       .blocks = 1,
                                       .attn = {4},
                                       .nattn = 1,
                                       .emb_mult = 4,
                                       .noise_mult = 1,
                                       .filter = {1, 1},
                                       .nfilter = 2,
                                       .sigma_data = 0.5};

struct net {
    const struct kernels *k;
    struct kdev *dev;
    struct graph *graph;
    struct params *params;
};

static void net_open(struct net *n, const struct net_config *c)
{
    assert_ok(kernels_find("cpu-portable", &n->k));
    assert_ok(n->k->open(&n->dev, "cpu-portable", 1));
    n->graph = graph_new();
    assert_ok(net_build(n->graph, c));
    assert_ok(params_new(&n->params, n->graph, n->k, n->dev));
    params_init(n->params, 7);
}

static void net_close(struct net *n)
{
    params_free(n->params);
    graph_free(n->graph);
    n->k->close(n->dev);
}

static int param_index(const struct graph *g, const char *name)
{
    for (int i = 0; i < graph_nparams(g); i++)
        if (!strcmp(graph_param_info(g, i)->name, name)) return i;
    fail_msg("no parameter %s", name);
    return -1;
}

static const char snapshot[] = "tests/golden/checkpoints/ect-network-snapshot.pkl";
static const char reference[] = "tests/golden/checkpoints/ect-network-snapshot.ref.safetensors";

static void published_snapshot(void **state)
{
    (void)state;
    struct net n;
    struct init_report r;
    struct st_file *ref;
    struct text line = {0};
    net_open(&n, &tiny);
    assert_ok(init_load(snapshot, "auto", n.params, n.graph, &r));
    assert_string_equal(r.prefix, "ema/");
    assert_int_equal(r.loaded, graph_nparams(n.graph));
    assert_int_equal(r.missing, 0);
    assert_int_equal(r.dropped, 0);
    init_report_text(&r, &line);
    assert_string_equal(line.s, "pickle, weights ema: 144 tensors taken");
    text_done(&line);
    init_report_done(&r);
    assert_ok(st_open(&ref, reference));
    for (int i = 0; i < graph_nparams(n.graph); i++) {
        const struct param_info *info = graph_param_info(n.graph, i);
        const struct st_tensor *t = st_find(ref, info->name);
        float *got = mem_array(info->count, sizeof *got), *want = mem_array(info->count, sizeof *want);
        assert_non_null(t);
        params_get(n.params, i, got);
        assert_ok(st_read_f32(t, want, info->count));
        if (memcmp(got, want, info->count * sizeof *got)) fail_msg("%s differs", info->name);
        mem_free(got);
        mem_free(want);
    }
    st_close(ref);
    assert_ok(init_load(snapshot, "ema", n.params, n.graph, &r));
    init_report_done(&r);
    assert_err(ERR_NOT_FOUND, init_load(snapshot, "net", n.params, n.graph, &r));
    assert_has(err_text(), "no weights 'net': it has ema");
    init_report_done(&r);
    net_close(&n);
}

/* EDM2's snapshots are float16, the Fourier features included. */
static void edm2_snapshot(void **state)
{
    (void)state;
    const struct net_config c = {.family = "edm2",
                                 .resolution = 8,
                                 .in_channels = 3,
                                 .label_dim = 6,
                                 .width = 8,
                                 .mult = {1, 1},
                                 .nmult = 2,
                                 .blocks = 1,
                                 .attn = {4},
                                 .nattn = 1,
                                 .head = 8,
                                 .logvar = true,
                                 .logvar_channels = 16,
                                 .clip = 256,
                                 .sigma_data = 0.5};
    struct net n;
    struct init_report r;
    float got[8], want[8];
    struct st_file *ref;
    net_open(&n, &c);
    assert_ok(init_load("tests/golden/checkpoints/edm2-network-snapshot-fp16.pkl", "auto", n.params, n.graph, &r));
    assert_string_equal(r.prefix, "ema/");
    assert_int_equal(r.loaded, 62);
    assert_int_equal(r.missing, 0);
    assert_int_equal(r.dropped, 0);
    init_report_done(&r);
    assert_ok(st_open(&ref, "tests/golden/checkpoints/edm2-network-snapshot-fp16.ref.safetensors"));
    params_get(n.params, param_index(n.graph, "unet.emb_fourier.freqs"), got);
    assert_ok(st_read_f32(st_find(ref, "unet.emb_fourier.freqs"), want, 8));
    assert_memory_equal(got, want, sizeof want);
    st_close(ref);
    net_close(&n);
}

/* A network with augmentation labels has one tensor more than the file, which keeps its drawn value. */
static void missing_keeps_value(void **state)
{
    (void)state;
    struct net_config c = tiny;
    struct net n;
    struct init_report r;
    c.augment_dim = 9;
    net_open(&n, &c);
    int at = param_index(n.graph, "model.map_augment.weight");
    float before[36], after[36];
    params_get(n.params, at, before);
    assert_ok(init_load(snapshot, "auto", n.params, n.graph, &r));
    params_get(n.params, at, after);
    assert_int_equal(r.missing, 1);
    assert_string_equal(r.missing_names.s, "model.map_augment.weight");
    assert_memory_equal(before, after, sizeof before);
    init_report_done(&r);
    net_close(&n);
}

static void other_shape(void **state)
{
    (void)state;
    struct net_config c = tiny;
    struct net n;
    struct init_report r;
    c.in_channels = 1;
    net_open(&n, &c);
    assert_err(ERR_FORMAT, init_load(snapshot, "auto", n.params, n.graph, &r));
    assert_has(err_text(), "ema/model.enc.8x8_conv.weight has shape [4, 3, 3, 3], the network's "
                           "model.enc.8x8_conv.weight has [4, 1, 3, 3]");
    init_report_done(&r);
    net_close(&n);
}

/* Writes the network's parameters as constant `value` under prefix, with the first component stripped if bare. */
static void add_set(struct st_writer *w, const struct graph *g, const char *prefix, bool bare, float value)
{
    for (int i = 0; i < graph_nparams(g); i++) {
        const struct param_info *info = graph_param_info(g, i);
        int64_t dims[4];
        float *x = mem_array(info->count, sizeof *x);
        for (int k = 0; k < info->ndim; k++) dims[k] = info->dims[k];
        for (size_t k = 0; k < info->count; k++) x[k] = value;
        char *name = mem_printf("%s%s", prefix, info->name + (bare ? strlen("model.") : 0));
        st_writer_add(w, name, ST_F32, info->ndim, dims, x);
        mem_free(name);
        mem_free(x);
    }
}

static float first_value(const struct net *n)
{
    float x[432];
    params_get(n->params, param_index(n->graph, "model.enc.8x8_conv.bias"), x);
    return x[0];
}

static void prefixes(void **state)
{
    (void)state;
    char dir[256], path[300];
    struct net n;
    struct init_report r;
    float zero[3] = {0};
    struct {
        const char *prefix;
        bool bare;
        const char *weights;
    } rows[] = {{"", false, "auto"},
                {"module.", false, "auto"},
                {"", true, "auto"},
                {"net/", true, "auto"},
                {"ema/emas/1/", false, "ema"},
                {"ema/unet.", true, "ema"},
                {"state_dict/", false, "state_dict"},
                {"a.b/c.", false, "a.b/c"}};
    net_open(&n, &tiny);
    test_dir(dir, sizeof dir);
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct st_writer *w = st_writer_new();
        add_set(w, n.graph, rows[i].prefix, rows[i].bare, 1 + (float)i);
        char *extra = mem_printf("%s%s", rows[i].prefix, "model.map_augment.weight" + (rows[i].bare ? 6 : 0));
        st_writer_add(w, extra, ST_F32, 1, (int64_t[]){3}, zero);
        snprintf(path, sizeof path, "%s/%zu.safetensors", dir, i);
        assert_ok(st_writer_save(w, path));
        st_writer_free(w);
        mem_free(extra);
        err_t err = init_load(path, rows[i].weights, n.params, n.graph, &r);
        if (err) fail_msg("prefix '%s': %s", rows[i].prefix, err_text());
        assert_string_equal(r.prefix, rows[i].prefix);
        assert_int_equal(r.loaded, graph_nparams(n.graph));
        assert_int_equal(r.dropped, 1);
        assert_has(r.dropped_names.s, "map_augment.weight");
        assert_near(first_value(&n), 1 + (double)i, 0);
        init_report_done(&r);
    }
    net_close(&n);
}

static void several_sets(void **state)
{
    (void)state;
    char dir[256], path[300];
    struct net n;
    struct init_report r;
    net_open(&n, &tiny);
    snprintf(path, sizeof path, "%s/x.safetensors", test_dir(dir, sizeof dir));
    struct st_writer *w = st_writer_new();
    add_set(w, n.graph, "emas/0/", false, 10);
    add_set(w, n.graph, "emas/1/", false, 11);
    add_set(w, n.graph, "optimizer_state/", false, 12);
    assert_ok(st_writer_save(w, path));
    st_writer_free(w);
    assert_err(ERR_USAGE, init_load(path, "auto", n.params, n.graph, &r));
    assert_string_equal(strstr(err_text(), "choose"), "choose with init.weights one of emas/0, emas/1");
    init_report_done(&r);
    assert_ok(init_load(path, "emas/1", n.params, n.graph, &r));
    assert_near(first_value(&n), 11, 0);
    init_report_done(&r);

    w = st_writer_new(); /* the trained weights and their average: the average is the default */
    add_set(w, n.graph, "net/", false, 20);
    add_set(w, n.graph, "ema/", false, 21);
    assert_ok(st_writer_save(w, path));
    st_writer_free(w);
    assert_ok(init_load(path, "auto", n.params, n.graph, &r));
    assert_near(first_value(&n), 21, 0);
    init_report_done(&r);
    assert_ok(init_load(path, "net", n.params, n.graph, &r));
    assert_near(first_value(&n), 20, 0);
    init_report_done(&r);
    net_close(&n);
}

static void nothing_fits(void **state)
{
    (void)state;
    struct net n;
    struct init_report r;
    net_open(&n, &tiny);
    assert_err(ERR_FORMAT, init_load("tests/golden/checkpoints/state-zip.pth", "auto", n.params, n.graph, &r));
    assert_has(err_text(), "no tensor of it is a parameter of this network");
    init_report_done(&r);
    assert_err(ERR_FORMAT, init_load("tests/golden/checkpoints/bad/evil-in-zip.pth", "auto", n.params, n.graph, &r));
    assert_has(err_text(), "posix.system");
    init_report_done(&r);
    net_close(&n);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(published_snapshot), cmocka_unit_test(missing_keeps_value),
                                       cmocka_unit_test(other_shape),        cmocka_unit_test(prefixes),
                                       cmocka_unit_test(several_sets),       cmocka_unit_test(nothing_fits),
                                       cmocka_unit_test(edm2_snapshot)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

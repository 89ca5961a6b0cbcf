/* Costs of the full-size networks from their shapes alone, against counts of the published modules (tests/golden/flops.json). */
#include <jansson.h>

#include "core/nets.h"
#include "core/spec.h"
#include "tests/test.h"

static double number(const json_t *o, const char *key)
{
    const json_t *v = json_object_get(o, key);
    if (!json_is_number(v)) fail_msg("no number '%s'", key);
    return json_number_value(v);
}

static bool is(const json_t *c, const char *key, const char *value)
{
    const json_t *v = json_object_get(c, key);
    return json_is_string(v) && !strcmp(json_string_value(v), value);
}

static int ints(const json_t *list, int *out)
{
    for (size_t i = 0; i < json_array_size(list); i++) out[i] = (int)json_integer_value(json_array_get(list, i));
    return (int)json_array_size(list);
}

/* EDM2's configurations name no type. Whether the uncertainty head is counted shows in the buffers: the head has two, so has the
 * embedding of the noise level. */
static struct net_config edm2_of(const json_t *entry, const json_t *c)
{
    struct net_config n = net_preset_find("edm2-img64-s")->config;
    n.resolution = (int)number(c, "img_resolution");
    n.in_channels = (int)number(c, "img_channels");
    n.label_dim = (int)number(c, "label_dim");
    n.width = (int)number(c, "model_channels");
    n.logvar_channels = ((int)number(entry, "buffers") - 2 * n.width) / 2;
    n.logvar = n.logvar_channels > 0;
    return n;
}

/* What an entry's config leaves out is the published modules' default. */
static struct net_config config_of(const json_t *entry)
{
    const json_t *c = json_object_get(entry, "config");
    bool adm = is(c, "model_type", "DhariwalUNet");
    if (!json_object_get(c, "model_type")) return edm2_of(entry, c);
    struct net_config n = net_preset_find(adm ? "imagenet64-adm" : "cifar10-ddpmpp")->config;
    n.resolution = (int)number(c, "img_resolution");
    n.label_dim = (int)number(c, "label_dim");
    n.width = (int)number(c, "model_channels");
    n.augment_dim = json_object_get(c, "augment_dim") ? (int)number(c, "augment_dim") : 0;
    n.nmult = ints(json_object_get(c, "channel_mult"), n.mult);
    n.nfilter = ints(json_object_get(c, "resample_filter"), n.filter);
    n.fourier = is(c, "embedding_type", "fourier");
    n.encoder = is(c, "encoder_type", "residual") ? CODER_RESIDUAL : CODER_STANDARD;
    if (!adm) n.noise_mult = (int)number(c, "channel_mult_noise");
    return n;
}

static void check_entry(const json_t *entry, const struct net_config *c)
{
    const json_t *part = json_object_get(entry, "breakdown");
    struct graph *g = graph_new();
    struct flops f;
    int64_t start = host.mono_ns();
    assert_ok(net_build(g, c));
    graph_flops(g, &f);
    double seconds = (double)(host.mono_ns() - start) * 1e-9;
    assert_true(f.linear == number(part, "linear"));
    assert_true(f.conv3x3 == number(part, "conv3x3"));
    assert_true(f.conv1x1 == number(part, "conv1x1"));
    assert_true(f.resample == number(part, "resample_depthwise_conv"));
    assert_true(f.attention == number(part, "attention_matmul"));
    assert_true(f.conv_other == 0);
    assert_true(flops_total(&f) == number(entry, "total_flops"));
    assert_true(flops_total(&f) - f.resample == number(entry, "total_flops_without_resample"));
    assert_true((double)graph_param_count(g) == number(entry, "params"));
    double buffers = 0, trainable = 0;
    for (int i = 0; i < graph_nparams(g); i++) {
        const struct param_info *p = graph_param_info(g, i);
        if (p->buffer) buffers += (double)p->count;
        else trainable++;
    }
    assert_true(buffers == number(entry, "buffers"));
    assert_true(trainable == number(entry, "trainable_tensors"));
    assert_true(seconds < (getenv("ECT_CHECK") ? 1 : 0.1));
    graph_free(g);
}

static json_t *load(void)
{
    json_error_t e;
    json_t *all = json_load_file("tests/golden/flops.json", 0, &e);
    if (!all) fail_msg("tests/golden/flops.json: %s", e.text);
    return all;
}

static void published_counts(void **s)
{
    (void)s;
    json_t *all = load(), *entry;
    const char *name;
    int seen = 0;
    json_object_foreach(all, name, entry)
    {
        struct net_config c = config_of(entry);
        check_entry(entry, &c);
        seen++;
    }
    assert_int_equal(seen, 17);
    json_decref(all);
}

static void presets(void **s)
{
    (void)s;
    static const char *const pairs[][2] = {{"cifar10-ddpmpp", "cifar10_ddpmpp_uncond"},
                                           {"cifar10-ddpmpp-cond", "cifar10_ddpmpp_cond"},
                                           {"cifar10-ddpmpp-aug", "cifar10_ddpmpp_uncond_augment9"},
                                           {"cifar10-ncsnpp", "cifar10_ncsnpp_uncond"},
                                           {"cifar10-ncsnpp-aug", "cifar10_ncsnpp_uncond_augment9"},
                                           {"imagenet64-adm", "imagenet64_adm_cond"},
                                           {"edm2-img64-s", "ect_imgnet_edm2_64_s"},
                                           {"edm2-img64-m", "ect_imgnet_edm2_64_m"},
                                           {"edm2-img64-l", "ect_imgnet_edm2_64_l"},
                                           {"edm2-img64-xl", "ect_imgnet_edm2_64_xl"}};
    json_t *all = load();
    for (size_t i = 0; i < ARRAY_LEN(pairs); i++) {
        const struct net_preset *p = net_preset_find(pairs[i][0]);
        assert_non_null(p);
        check_entry(json_object_get(all, pairs[i][1]), &p->config);
    }
    static const char *const with_logvar[][2] = {{"edm2-img64-xs", "edm2_img64_with_logvar_xs"},
                                                 {"edm2-img64-xl", "edm2_img64_with_logvar_xl"}};
    for (size_t i = 0; i < ARRAY_LEN(with_logvar); i++) {
        struct net_config c = net_preset_find(with_logvar[i][0])->config;
        c.logvar = true;
        check_entry(json_object_get(all, with_logvar[i][1]), &c);
    }
    json_decref(all);
    assert_null(net_preset_find("cifar10-ddpmp"));
    for (const struct net_preset *p = net_presets; p->name; p++) {
        struct graph *g = graph_new();
        assert_ok(net_build(g, &p->config));
        graph_free(g);
    }
}

/* The deep networks: 96.9 M parameters and 38.16 GMAC as the paper's twice deeper baseline has them; a preset and its settings are
 * one network. */
static void deep(void **s)
{
    (void)s;
    struct graph *g = graph_new();
    struct flops f;
    assert_ok(net_build(g, &net_preset_find("cifar10-ddpmpp-deep")->config));
    graph_flops(g, &f);
    assert_near((double)graph_param_count(g) / 1e6, 96.9, 0.05);
    assert_near(flops_total(&f) / 2e9, 38.16, 0.005);
    graph_free(g);
    g = graph_new();
    assert_ok(net_build(g, &net_preset_find("cifar10-ncsnpp-deep")->config));
    graph_flops(g, &f);
    assert_in_range(graph_param_count(g), 96900000, 98000000);
    assert_near(flops_total(&f) / 2e9, 38.3, 0.1);
    graph_free(g);
}

static void settings(void **state)
{
    (void)state;
    for (const struct net_preset *p = net_presets; p->name; p++) {
        struct spec s;
        struct net_config c;
        spec_defaults(&s);
        s.net_width = 4000; /* of another network: nothing of it is left */
        s.net_clip = 3;
        s.net_augment = 9;
        s.net_filter.n = 1;
        assert_true(spec_preset(&s, p->name));
        assert_ok(net_config_from_spec(&c, &s, p->config.resolution, p->config.in_channels, p->config.label_dim,
                                       p->config.sigma_data));
        struct graph *a = graph_new(), *b = graph_new();
        assert_ok(net_build(a, &p->config));
        assert_ok(net_build(b, &c));
        assert_int_equal(graph_nparams(a), graph_nparams(b));
        for (int i = 0; i < graph_nparams(a); i++) {
            const struct param_info *x = graph_param_info(a, i), *y = graph_param_info(b, i);
            assert_string_equal(x->name, y->name);
            assert_int_equal(x->count, y->count);
            assert_true(x->init.kind == y->init.kind && x->init.scale == y->init.scale);
        }
        graph_free(a);
        graph_free(b);
    }
    struct spec s, untouched;
    spec_defaults(&s);
    spec_defaults(&untouched);
    assert_false(spec_preset(&s, "cifar10-ncsnp"));
    assert_memory_equal(&s, &untouched, sizeof s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(published_counts), cmocka_unit_test(presets),
                                       cmocka_unit_test(deep), cmocka_unit_test(settings)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

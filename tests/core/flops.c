/* Costs of the full-size networks from their shapes alone, against counts of the published modules (tests/golden/flops.json). */
#include <jansson.h>

#include "core/nets.h"
#include "tests/test.h"

static double number(const json_t *o, const char *key)
{
    const json_t *v = json_object_get(o, key);
    if (!json_is_number(v)) fail_msg("no number '%s'", key);
    return json_number_value(v);
}

static struct net_config config_of(const json_t *entry)
{
    const json_t *c = json_object_get(entry, "config"), *mult = json_object_get(c, "channel_mult");
    struct net_config n = net_preset_find("cifar10-ddpmpp")->config;
    n.resolution = (int)number(c, "img_resolution");
    n.label_dim = (int)number(c, "label_dim");
    n.width = (int)number(c, "model_channels");
    n.augment_dim = json_object_get(c, "augment_dim") ? (int)number(c, "augment_dim") : 0;
    n.nmult = (int)json_array_size(mult);
    for (int i = 0; i < n.nmult; i++) n.mult[i] = (int)json_integer_value(json_array_get(mult, (size_t)i));
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
        if (strncmp(name, "cifar10_ddpmpp_", 15)) continue;
        struct net_config c = config_of(entry);
        check_entry(entry, &c);
        seen++;
    }
    assert_int_equal(seen, 4);
    json_decref(all);
}

static void presets(void **s)
{
    (void)s;
    static const char *const pairs[][2] = {{"cifar10-ddpmpp", "cifar10_ddpmpp_uncond"},
                                           {"cifar10-ddpmpp-cond", "cifar10_ddpmpp_cond"},
                                           {"cifar10-ddpmpp-aug", "cifar10_ddpmpp_uncond_augment9"}};
    json_t *all = load();
    for (size_t i = 0; i < ARRAY_LEN(pairs); i++) {
        const struct net_preset *p = net_preset_find(pairs[i][0]);
        assert_non_null(p);
        check_entry(json_object_get(all, pairs[i][1]), &p->config);
    }
    json_decref(all);
    assert_null(net_preset_find("cifar10-ddpmp"));
    for (const struct net_preset *p = net_presets; p->name; p++) {
        struct graph *g = graph_new();
        assert_ok(net_build(g, &p->config));
        graph_free(g);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(published_counts), cmocka_unit_test(presets)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

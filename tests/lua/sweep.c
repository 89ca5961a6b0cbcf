/* From a script to cells: names, order, settings, parents, evaluations, overrides. */
#include "tests/lua/lua_test.h"

#include "core/target.h"

#define HEAD "local ect = require 'ect'\n"

/* Names of the cells of the last sweep, joined by blanks. */
static const char *names(const struct script *s)
{
    static char out[8192];
    const struct script_sweep *w = script_sweep_at(s, script_nsweeps(s) - 1);
    out[0] = 0;
    for (int i = 0; i < w->ncells; i++) {
        const struct script_cell *c = script_cell_at(s, w->first + i);
        assert_non_null(c);
        assert_int_equal(c->ordinal, i);
        strcat(out, i ? " " : "");
        strcat(out, c->cell);
    }
    return out;
}
static void cells(const char *methods, const char *want)
{
    char text[4096];
    snprintf(text, sizeof text, HEAD "local s = ect.sweep 's' { base = ect.recipe 'digits-ect' }\n%s", methods);
    struct script *s = accepted(text);
    assert_string_equal(names(s), want);
    script_close(s);
}

static void methods(void **state)
{
    (void)state;
    cells("", "base");
    cells("s:ablate { dropout = {0, .1, .2}, c = {0, .03} }", "base c=0.03 dropout=0.1 dropout=0.2");
    cells("s:ablate { dropout = {.1} }:ablate { c = {.03} }",
          "base dropout=0.1 c=0.03"); /* never two factors at once */
    cells("s:grid { dropout = {0, .1}, c = {0, 1} }", "c=0,dropout=0 c=0,dropout=0.1 c=1,dropout=0 c=1,dropout=0.1");
    cells("s:grid { c = {0, 1} }:grid { dropout = {0, .1} }",
          "c=0,dropout=0 c=0,dropout=0.1 c=1,dropout=0 c=1,dropout=0.1");
    cells("s:zip { lr = {1e-3, 1e-4}, batch = {32, 128} }", "batch=32,lr=0.001 batch=128,lr=0.0001");
    cells("s:grid { c = {0, 1} }:ablate { dropout = {0, .1} }", "c=0 c=1 c=0,dropout=0.1 c=1,dropout=0.1");
    cells("s:ablate { dropout = {.1} }:grid { c = {0, 1} }", "c=0 c=1 dropout=0.1,c=0 dropout=0.1,c=1");
    cells("s:concat(ect.grid { c = {1, 2} }, ect.zip { lr = {1}, batch = {2} })", "base c=1 c=2 batch=2,lr=1");
    cells("s:concat(ect.grid { c = {1, 2} }:where(function(c) return c.c == 2 end))", "base c=2");
    cells("s:grid { c = {0, 1, 1.0, 1e0} }", "c=0 c=1"); /* one value, one label */
    cells("s:grid { dropout = {0, .1}, c = {0, 1} }:where(function(x) return x.dropout == 0 or x.c == 1 end)",
          "c=0,dropout=0 c=1,dropout=0 c=1,dropout=0.1");
    cells("s:grid { ['net.width'] = {8, 16} }:where(function(c) return c.net.width < 10 and c['net.width'] == 8 end)",
          "net.width=8");
    cells("s:grid { ['net.mult'] = {{1, 2}, {2, 2}, {4}} }", "net.mult=1,2 net.mult=2,2 net.mult=4");
    cells("s:ablate { mapping = { z = ect.mapping.zero{}, const = ect.mapping.const{}, sig = ect.mapping.sigmoid{} } }",
          "base mapping=const mapping=z");
    cells("s:ablate { mapping = { ect.mapping.const{}, ect.mapping.const{q = 4}, ect.mapping.sigmoid{} } }",
          "base mapping=const mapping=const(q=4)");
    cells("s:ablate { setup = { small = { net = { width = 8 }, iters = 10 }, big = { ['net.width'] = 32 } } }",
          "base setup=big setup=small");
    cells("s:ablate { ema = { { std05 = .99, b = .9 }, { ect.ema.power{std = .1}, ect.ema.power{std = .05} } } }",
          "base ema=b+std05 ema=std05+std1");
    cells("s:grid { c = {0, 1} }:where(function(c) return c.predicted.flops_total == 2 * c.predicted.flops_executed "
          "and c.labels.c == '1' end)",
          "c=1");
    cells("s:ablate { xflip = {true} }", "base xflip=true");
}

static struct text said;
static void hear(void *ctx, enum log_level level, const char *line)
{
    (void)ctx, (void)level;
    text_addf(&said, "%s\n", line);
}

static void equal_draws(void **state)
{
    (void)state;
    log_set(LOG_INFO, hear, NULL);
    struct script *s = accepted(HEAD "ect.sweep 's' {}:random { n = 4, batch = {32} }");
    assert_int_equal(script_ncells(s), 1);
    assert_has(text_str(&said), "random: 4 draws, 1 of them different; ect.range{...}");
    script_close(s);
    said.len = 0;
    s = accepted(HEAD "ect.sweep 's' {}:random { n = 4, lr = ect.range{1e-5, 1e-2} }");
    assert_int_equal(script_ncells(s), 4);
    assert_int_equal(said.len, 0);
    script_close(s);
    log_set(LOG_INFO, NULL, NULL);
    text_done(&said);
}

static void random_draws(void **state)
{
    (void)state;
    const char *text = HEAD "ect.sweep 's' {}:random { n = 40, lr = ect.range{1e-5, 1e-2, log = true}, batch = {32, "
                            "64}, iters = ect.range{5, 7, int = true} }";
    struct script *a = accepted(text), *b = accepted(text);
    int low = 0, batch32 = 0;
    assert_int_equal(script_ncells(a), 40);
    for (int i = 0; i < 40; i++) {
        const struct spec *s = &script_cell_at(a, i)->spec;
        double lr = atof(s->lr.id);
        assert_true(lr >= 1e-5 && lr <= 1e-2 && s->iters >= 5 && s->iters <= 7 && (s->batch == 32 || s->batch == 64));
        low += lr < 3.16e-4;
        batch32 += s->batch == 32;
        assert_string_equal(script_cell_at(b, i)->hash, script_cell_at(a, i)->hash);
    }
    assert_in_range(low, 8, 32);
    assert_in_range(batch32, 8, 32);
    script_close(b);
    b = accepted(HEAD "ect.sweep 's' {}:random { n = 40, seed = 1, lr = ect.range{1e-5, 1e-2, log = true}, batch = "
                      "{32, 64}, iters = {5} }");
    assert_string_not_equal(script_cell_at(b, 0)->spec.lr.id, script_cell_at(a, 0)->spec.lr.id);
    script_close(a);
    script_close(b);
}

static const char example[] =
    HEAD "local pre = ect.run 'pre' { ect.recipe 'digits-edm', replicates = 3 }\n"
         "local s = ect.sweep 'mapping' {\n"
         "  init = pre:weights { ema = 'std05' }, base = ect.recipe 'digits-ect', replicates = 3,\n"
         "  eval = { at = {'25%', '100%'}, nfe = {1, 2}, ema = 'std05', samples = 10000 },\n"
         "}\n"
         "s:ablate { mapping = { const = ect.mapping.const{}, sigmoid = ect.mapping.sigmoid{k=8,b=1},\n"
         "             mine = function(t, s) return t * (1 - 2^-(s.stage+1) * (1 + 1/(1+t*t))) end },\n"
         "           dropout = {0, .1, .2}, c = {0, ect.c_rule()} }\n"
         "s:where(function(c) return c.predicted.flops_total < 1e17 end)\n"
         "s:table  { rows = 'mapping', cols = {'fd_random@1', 'flops_total'}, vs = 'const', stat = 'paired95' }\n"
         "s:pareto { min = {'flops_total', 'fd_random@2'}, by = 'nfe' }\n";

static void whole(void **state)
{
    (void)state;
    struct script *s = accepted(example);
    assert_int_equal(script_nsweeps(s), 2);
    assert_string_equal(names(s), "base c=0.00432 dropout=0.1 dropout=0.2 mapping=const mapping=mine");
    const struct script_cell *pre = script_cell_at(s, 0), *c = script_cell_at(s, 2);
    assert_string_equal(pre->cell, "pretrain");
    assert_string_equal(pre->sweep, "pre");
    assert_int_equal(pre->parent, -1);
    assert_string_equal(pre->spec.target.s, "edm");
    assert_int_equal(pre->replicates, 3);
    assert_int_equal(c->parent, 0);
    assert_string_equal(c->parent_weights, "std05");
    assert_true(c->spec.c == 0.00432);
    assert_string_equal(c->factors, "{\"c\":\"0.00432\",\"dropout\":\"0\",\"mapping\":\"sigmoid\"}");
    char init[128];
    snprintf(init, sizeof init, "run:%s@std05", pre->hash);
    assert_string_equal(c->spec.init.s, init);
    assert_int_equal(c->nevals, 1);
    assert_int_equal(c->evals[0].eval_at.n, 2);
    assert_int_equal(c->evals[0].eval_nfe.v[1], 2);
    char hash[SHA256_TEXT];
    spec_hash(&c->spec, hash);
    assert_string_equal(hash, c->hash);
    const char *d = script_sweep_at(s, 1)->declared;
    assert_has(d, "\"kind\":\"sweep\"");
    assert_has(d, "\"base\":\"base\"");
    assert_has(d, "\"parents\":[\"pre\"]");
    assert_has(d, "\"mapping\":{\"base\":\"sigmoid\",\"labels\":[\"sigmoid\",\"const\",\"mine\"]}");
    assert_has(d, "\"tables\":[{\"cols\":[\"fd_random@1\",\"flops_total\"],\"rows\":\"mapping\",\"stat\":\"paired95\","
                  "\"vs\":\"const\"}]");
    assert_has(d, "\"pareto\":[{\"by\":\"nfe\",\"max\":[],\"min\":[\"flops_total\",\"fd_random@2\"]}]");
    assert_has(d, "\"at\":[\"25%\",\"100%\"]");
    script_close(s);
}

/* Any script of experiments/ must be sound. */
static void demo(void **state)
{
    (void)state;
    const struct embed *e = embed_find("experiments/demo.lua");
    assert_non_null(e);
    struct script *s;
    assert_ok(script_open(&s, e->name, e->data, NULL, 0, &test_host));
    assert_int_equal(script_nsweeps(s), 2);
    assert_string_equal(names(s), "base c=0.00432 dropout=0.1 mapping=const");
    assert_int_equal(script_cell_at(s, 0)->nevals, 2);
    for (int i = 0; i < script_ncells(s); i++) {
        double m[DESIGN_EMAS];
        assert_int_equal(script_cell_at(s, i)->replicates, 3);
        assert_ok(script_ema_memory(s, i, m));
        assert_true(m[0] < 0.01);
    }
    script_close(s);
}

/* The comparisons of objectives spend equal forward passes on every cell, pretraining included, over at least five replicates. */
static void experiments(void **state)
{
    (void)state;
    static const char *const names[] = {"experiments/swissroll.lua", "experiments/objectives.lua"};
    for (size_t k = 0; k < ARRAY_LEN(names); k++) {
        const struct embed *e = embed_find(names[k]);
        struct script *s;
        double budget = 0;
        assert_non_null(e);
        assert_ok(script_open(&s, e->name, e->data, NULL, 0, &test_host));
        assert_int_equal(script_ncells(s), 11);
        for (int i = 0; i < script_ncells(s); i++) {
            const struct script_cell *c = script_cell_at(s, i);
            double forwards = 0;
            struct design d;
            assert_true(c->replicates >= 5 && c->nevals >= 1);
            assert_ok(script_design(s, i, &d));
            for (const struct script_cell *at = c; at; at = at->parent < 0 ? NULL : script_cell_at(s, at->parent))
                forwards += target_find(at->spec.target.s)->nominal_forwards * (double)at->spec.iters;
            if (i == 0) budget = 2 * forwards; /* the pretraining */
            else assert_near(forwards, budget, 0);
        }
        assert_has(script_sweep_at(s, 1)->declared, "\"claims\":[");
        script_close(s);
    }
}

static void claims(void **state)
{
    (void)state;
    struct script *s =
        accepted(HEAD "local s = ect.sweep 's' {}\ns:ablate { c = { 0, 1 } }\n"
                      "s:claim { text = 'c helps', better = 'c=1', than = 'base', metric = 'fd_random@1' }\n"
                      "s:claim { text = '2 steps', better = 'base', metric = 'sw2@2', than_metric = 'sw2@1' }");
    assert_has(script_sweep_at(s, 0)->declared,
               "\"claims\":[{\"better\":\"c=1\",\"metric\":\"fd_random@1\",\"text\":\"c helps\",\"than\":\"base\","
               "\"than_metric\":\"fd_random@1\"},{\"better\":\"base\",\"metric\":\"sw2@2\",\"text\":\"2 "
               "steps\",\"than\":\"base\",\"than_metric\":\"sw2@1\"}]");
    script_close(s);
    s = accepted(HEAD "local s = ect.sweep 's' {}");
    assert_null(strstr(script_sweep_at(s, 0)->declared, "claims"));
    script_close(s);
    refused(HEAD "local s = ect.sweep 's' {}\ns:claim { text = 'x', better = 'bas', than = 'base', metric = 'sw2@1' }",
            "did you mean 'base'?");
    refused(HEAD "local s = ect.sweep 's' {}\ns:claim { text = 'x', better = 'base', metric = 'sw2@1' }",
            "not better than itself");
    refused(HEAD "local s = ect.sweep 's' {}\ns:claim { text = 'x', better = 'base' }", "metric is needed");
    refused(HEAD "local s = ect.sweep 's' {}\ns:claim { txt = 'x' }", "did you mean 'text'?");
}

/* A name that nothing could ever fill is refused at its line; what `ect eval` could fill is not. */
static void columns(void **state)
{
    (void)state;
#define W HEAD "local s = ect.sweep 's' { eval = { nfe = {1, 2}, metrics = {'fd_random', 'fid'} } }\n"
    refused(W "s:table {\n cols = { 'fd_randm@1', 'seconds' } }",
            "dir/test.lua:4: table: no column 'fd_randm@1': did you mean 'fd_random@1'?");
    refused(W "s:pareto { min = {'flop_total', 'fd_random@2'} }",
            "dir/test.lua:3: pareto: no column 'flop_total': did you mean 'flops_total'?");
    refused(W "s:table { cols = {'flops'} }", "no column 'flops'");
    refused(W "s:table { cols = {'enrgy@heun35'} }", "did you mean 'energy@heun35'?");
    refused(W "s:table { cols = {'fd_random'} }", "no column 'fd_random': did you mean 'fd_random@1'?");
    refused(W "s:table { cols = {'fd_random@huen3'} }", "no column 'fd_random@huen3'");
    refused(W "s:pareto { min = {'flops_total', 'fd_randon'}, by = 'nfe' }", "did you mean 'fd_random'?");
    refused(W "s:pareto { min = {'flops_total', 'fd_random@1'}, by = 'nfee' }", "no by = 'nfee'");
    refused(W "s:pareto { min = {'flops_total'}, max = {'coverage_pixl@1'} }", "no column 'coverage_pixl@1'");
    refused(W "s:claim { text = 't', better = 'base', metric = 'fd_randm@2', than_metric = 'fd_random@1' }",
            "claim: no column 'fd_randm@2'");
#undef W
    said.len = 0; /* of the evaluations that nobody declared */
    log_set(LOG_INFO, hear, NULL);
    script_close(accepted(HEAD "local s = ect.sweep 's' { eval = { nfe = {1, 2}, metrics = {'fid'} } }\n"
                               "s:table { cols = {'fid@1', 'fid@2', 'seconds', 'fid@3', 'recall_dinov2:k3@heun35'} }\n"
                               "s:pareto { min = {'iters', 'fid'}, by = 'nfe' }"));
    log_set(LOG_INFO, NULL, NULL);
    assert_has(said.s, "no evaluation 'fid@3' is declared (there are: fid@1, fid@2)");
    assert_has(said.s, "'recall_dinov2:k3@heun35'");
    assert_null(strstr(said.s, "'fid@2' is"));
    assert_null(strstr(said.s, "'fid' is"));
    text_done(&said);
}

static void recipes(void **state)
{
    (void)state;
    const char *const *list;
    int n = script_recipes(&list);
    for (int i = 0; i < n; i++) {
        struct script *s;
        struct design d;
        assert_ok(script_recipe(&s, list[i], NULL, 0, NULL));
        assert_int_equal(script_ncells(s), 1);
        assert_ok(script_design(s, 0, &d));
        assert_true(d.nemas >= 1);
        assert_int_equal(script_cell_at(s, 0)->nevals, 1);
        script_close(s);
    }
    struct script *s;
    const char *sets[] = {
        "iters=7",        "mapping=const{q=4}", "lr=1e-3", "net.mult=1,2,2", "dropout=ect.dropout.const{p=0.5}",
        "eval.samples=99"};
    assert_ok(script_recipe(&s, "digits-ect", sets, ARRAY_LEN(sets), NULL));
    const struct script_cell *c = script_cell_at(s, 0);
    assert_int_equal(c->spec.iters, 7);
    assert_string_equal(c->spec.mapping.id, "const(q=4)@1");
    assert_string_equal(c->spec.lr.id, "0.001");
    assert_string_equal(c->spec.dropout.id, "0.5");
    assert_int_equal(c->spec.net_mult.n, 3);
    assert_int_equal(c->evals[0].eval_samples, 99);
    script_close(s);
    assert_err(ERR_USAGE, script_recipe(&s, "digits-etc", NULL, 0, NULL));
    assert_has(err_text(), "did you mean 'digits-ect'");
    /* the library and the list for help agree */
    for (int i = 0; i < n; i++) refused("local ect = require 'ect'\nect.recipe 'zzzzzzzzzzzz'", list[i]);
}

/* A network's name stands for all its settings, over those of a recipe; what stands beside the name wins. */
static void networks(void **state)
{
    (void)state;
    struct script *s =
        accepted(HEAD "ect.sweep 'a' { base = ect.recipe 'digits-ect' { net = 'cifar10-ncsnpp' } }\n"
                      "ect.sweep 'b' { base = ect.recipe 'digits-ect' { net = { 'cifar10-ncsnpp', width "
                      "= 64, attn = {8} } } }\n"
                      "ect.sweep 'c' { base = { net = 'imagenet64-adm', ['net.blocks'] = 1 } }\n"
                      "local s = ect.sweep 'd' { base = ect.recipe 'cifar10-ect' }\n"
                      "s:ablate { net = {'cifar10-ddpmpp', 'cifar10-ncsnpp', 'cifar10-ddpmpp-deep'}, c = {1} }\n"
                      "local t = ect.sweep 'e' { base = ect.recipe 'cifar10-ect' }\n"
                      "t:ablate { net = { fat = {'cifar10-ncsnpp', width = 256}, ncsn = 'cifar10-ncsnpp' } }");
    const struct spec *a = &script_cell_at(s, 0)->spec, *b = &script_cell_at(s, 1)->spec,
                      *c = &script_cell_at(s, 2)->spec;
    assert_string_equal(a->net_family.s, "songunet");
    assert_int_equal(a->net_width, 128);
    assert_int_equal(a->net_blocks, 4);
    assert_int_equal(a->net_mult.n, 3);
    assert_int_equal(a->net_noise_mult, 2);
    assert_int_equal(a->net_filter.n, 4);
    assert_int_equal(a->net_filter.v[1], 3);
    assert_string_equal(a->net_embedding.s, "fourier");
    assert_string_equal(a->net_encoder.s, "residual");
    assert_true(a->net_fourier_scale == 16 && !a->net_cond);
    assert_int_equal(b->net_width, 64);
    assert_int_equal(b->net_attn.v[0], 8);
    assert_string_equal(b->net_encoder.s, "residual");
    assert_string_equal(c->net_family.s, "adm");
    assert_int_equal(c->net_blocks, 1);
    assert_int_equal(c->net_mult.v[3], 4);
    assert_true(c->net_cond);
    const struct script_sweep *w = script_sweep_at(s, 3);
    static const char *const want[] = {"base", "c=1", "net=cifar10-ncsnpp", "net=cifar10-ddpmpp-deep"};
    assert_int_equal(w->ncells, ARRAY_LEN(want)); /* the base is the first of the list */
    for (int i = 0; i < w->ncells; i++) assert_string_equal(script_cell_at(s, w->first + i)->cell, want[i]);
    assert_int_equal(script_cell_at(s, w->first + 2)->spec.net_noise_mult, 2);
    assert_int_equal(script_cell_at(s, w->first + 3)->spec.net_blocks, 8);
    assert_string_equal(names(s), "base net=fat net=ncsn");
    assert_int_equal(script_cell_at(s, script_sweep_at(s, 4)->first + 1)->spec.net_width, 256);
    script_close(s);
    /* the same by its settings is the same run */
    struct script *t =
        accepted(HEAD "ect.sweep 'a' { base = ect.recipe 'digits-ect' { net = { 'songunet', width = 128, mult = "
                      "{2,2,2}, blocks = 4, attn = {16}, noise_mult = 2, embedding = 'fourier', "
                      "fourier_scale = 16, encoder = 'residual', filter = {1,3,3,1} } } }");
    s = accepted(HEAD "ect.sweep 'a' { base = ect.recipe 'digits-ect' { net = 'cifar10-ncsnpp' } }");
    assert_string_equal(script_cell_at(s, 0)->hash, script_cell_at(t, 0)->hash);
    script_close(s);
    script_close(t);
    const char *sets[] = {"net=cifar10-ncsnpp", "net.width=32"}, *bad = "net=cifar10-ncsnp";
    assert_ok(script_recipe(&s, "digits-ect", sets, ARRAY_LEN(sets), NULL));
    assert_int_equal(script_cell_at(s, 0)->spec.net_width, 32);
    assert_string_equal(script_cell_at(s, 0)->spec.net_embedding.s, "fourier");
    script_close(s);
    assert_err(ERR_USAGE, script_recipe(&s, "digits-ect", &bad, 1, NULL));
    assert_has(err_text(), "--set net=cifar10-ncsnp: net: no network 'cifar10-ncsnp': did you mean 'cifar10-ncsnpp'?");
    refused(HEAD "ect.sweep 's' { base = {\n net = { 'imagenet64-adn', width = 8 } } }",
            "dir/test.lua:3: net: no network 'imagenet64-adn': did you mean 'imagenet64-adm'?");
    refused(HEAD "ect.sweep 's' { base = { net = 'songunt' } }", "did you mean 'songunet'?");
    refused(HEAD "local s = ect.sweep 's' {}\ns:ablate { net = { 'cifar10-ncsnp' } }",
            "did you mean 'cifar10-ncsnpp'?");
    refused(HEAD "local s = ect.sweep 's' {}\ns:ablate { net = { { 'cifar10-ncsnpp', width = 8 } } }", "needs a name");
}

/* Settings of samplers reach the cells, and what is not the default is told to reports. */
static void samplers(void **state)
{
    (void)state;
    struct script *s;
    assert_ok(open_text(
        &s, HEAD "ect.sweep 's' { base = ect.recipe 'digits-ect', eval = {\n"
                 "{ sampler = 'heun', nfe = 5, churn = { 40, min = 0.05, max = 50 }, sigma_max = 60, rho = 5 },\n"
                 "{ sampler = 'dpmpp-2m', nfe = 10, labels = 'class:3' }, { sampler = 'ancestral-vp', nfe = 21 } } }"));
    const struct spec *e = &script_cell_at(s, 0)->evals[0];
    assert_near(e->eval_churn, 40, 0);
    assert_near(e->eval_churn_min, 0.05, 0);
    assert_near(e->eval_churn_max, 50, 0);
    assert_near(e->eval_churn_noise, 1, 0);
    assert_near(e->eval_sigma_max, 60, 0);
    assert_near(e->eval_rho, 5, 0);
    assert_string_equal(script_cell_at(s, 0)->evals[1].eval_labels.s, "class:3");
    assert_string_equal(script_cell_at(s, 0)->evals[2].eval_sampler.s, "ancestral-vp");
    const char *d = script_sweep_at(s, 0)->declared;
    assert_has(d, "\"churn\":40");
    assert_has(d, "\"sigma_max\":60");
    assert_has(d, "\"labels\":\"class:3\"");
    assert_null(strstr(d, "alpha"));
    assert_null(strstr(d, "\"labels\":\"data\""));
    script_close(s);
}

static void sets(void **state)
{
    (void)state;
    struct script *s;
    const char *good[] = {"mapping:dropout=0.3", "iters=11", "replicates=1", "mapping:eval.nfe=2", "quick=true", "n=3"};
    char text[sizeof example + 256];
    snprintf(text, sizeof text,
             "%s\nassert(ect.arg('quick', false) == true and ect.arg('n', 1) == 3 and ect.arg('other', 'x') == 'x')",
             example);
    assert_ok(script_open(&s, "x.lua", text, good, ARRAY_LEN(good), &test_host));
    assert_string_equal(names(s), "base c=0.00432 dropout=0 dropout=0.1 dropout=0.2 mapping=const mapping=mine");
    assert_string_equal(script_cell_at(s, 0)->spec.dropout.id, "0");
    assert_string_equal(script_cell_at(s, 1)->spec.dropout.id, "0.3");
    for (int i = 0; i < script_ncells(s); i++) {
        assert_int_equal(script_cell_at(s, i)->spec.iters, 11);
        assert_int_equal(script_cell_at(s, i)->replicates, 1);
    }
    assert_int_equal(script_cell_at(s, 1)->evals[0].eval_nfe.n, 1);
    script_close(s);
    const struct {
        const char *set, *says;
    } bad[] = {
        {"drpout=1", "did you mean 'dropout'"},
        {"quikc=1", "unknown setting 'quikc'"},
        {"dropout", "key=value is needed"},
        {"iters=many", "whole number"},
        {"mapping=sigmod{}", "did you mean 'sigmoid'"},
        {"mapping=inv_dt", "no 'inv_dt'"},
        {"mapping=ect.weight.inv_dt{}", "a function of ect.weight"},
        {"nosuch:dropout=0.1", "no sweep 'nosuch'"},
        {"mapping:foo=0.1", "unknown setting 'foo'"},
        {"replicates=0", "whole number from 1"},
        {"metric=l3", "pseudo-huber|l2|l1"},
    };
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        assert_err(ERR_USAGE, script_open(&s, "x.lua", example, &bad[i].set, 1, &test_host));
        assert_has(err_text(), bad[i].says);
        assert_has(err_text(), "--set ");
    }
}

static void mistakes(void **state)
{
    (void)state;
#define S HEAD "local s = ect.sweep 's' { base = ect.recipe 'digits-ect' }\n"
    refused(HEAD "ect.sweep 's' {\n base = {\n  droput = 1 } }",
            "dir/test.lua:4: unknown setting 'droput': did you mean 'dropout'?");
    refused(HEAD "ect.sweep 's' { base = ect.recipe 'digits-ect' {\n net = { width = 8,\n wdth = 3 } } }",
            "dir/test.lua:4: unknown setting 'net.wdth': did you mean 'net.width'?");
    refused(HEAD "ect.sweep 's' { base = {\n ['net.widht'] = 8 } }", "dir/test.lua:3: unknown setting 'net.widht'");
    refused(HEAD "ect.sweep 's' {\n replicate = 3 }",
            "dir/test.lua:3: sweep s: unknown option 'replicate': did you mean 'replicates'?");
    refused(HEAD "ect.sweep 's' {\n lr = 3 }", "'lr': it is a setting and belongs into the base");
    refused(HEAD "ect.sweep 's' { base = { batch = 'x' } }", "batch: a whole number is needed, not a string");
    refused(HEAD "ect.sweep 's' { base = { batch = 1.5 } }", "dir/test.lua:2: batch = 1.5: a whole number is needed");
    refused(HEAD "ect.sweep 's' { base = { batch = 0 } }", "1..65536");
    refused(HEAD "ect.sweep 's' { base = { xflip = 1 } }", "xflip: true or false is needed, not a number");
    refused(HEAD "ect.sweep 's' { base = { mapping = 'const' } }",
            "mapping: a number or a function is needed, not a string");
    refused(HEAD "ect.sweep 's' { base = { metric = 'l3' } }", "metric = l3: must be pseudo-huber|l2");
    refused(HEAD "ect.sweep 's' { base = { ['net.mult'] = {1, 'x'} } }", "a list of whole numbers is needed");
    refused(HEAD "ect.sweep 's' { base = 3 }", "base must be a recipe or a table");
    refused(HEAD "ect.sweep 's' { replicates = 0 }", "replicates must be a whole number from 1 on");
    refused(HEAD "ect.sweep 's' {} ect.sweep 's' {}", "the name is taken");
    refused(HEAD "ect.sweep 'a/b' {}", "a name is needed");
    refused(HEAD "ect.recipe 'digits-etc'", "dir/test.lua:2: no recipe 'digits-etc': did you mean 'digits-ect'?");
    refused(S "s:ablate {\n dropuot = {1} }", "dir/test.lua:4: unknown factor 'dropuot': did you mean 'dropout'?");
    refused(S "s:ablate { dropout = 1 }", "a list of values is needed");
    refused(S "s:ablate { dropout = {1, a = 2} }", "all with labels or all without");
    refused(S "s:ablate { dropout = {} }", "has no values");
    refused(S "s:ablate { ['eval.nfe'] = {1} }", "cannot be a factor");
    refused(S "s:ablate { threads = {1} }", "does not change a result");
    refused(S "s:zip { lr = {1, 2}, batch = {1} }", "lists of one length");
    refused(S "s:abblate {}", "a sweep has no 'abblate': did you mean 'ablate'?");
    refused(S "s.ablate { dropout = {1} }", "with a colon");
    refused(S "s:where(function(c) return c.dropuot end)", "unknown setting 'dropuot'");
    refused(S "s:where(function(c) return c.predicted.flops end)", "c.predicted has no 'flops'");
    refused(S "s:where(function(c) return false end)", "has no cells");
    refused(S "s:where(function(c)\n local x = nil\n return x.y end)", "dir/test.lua:5: attempt to index a nil value");
    refused(S "s:table { rows = 'mappin', cols = {'seconds'} }", "no factor 'mappin'");
    refused(S "s:table { rows = 'cell', cols = {'seconds'}, vs = 'bas' }", "did you mean 'base'");
    refused(S "s:table { rows = 'cell', cols = {'seconds'}, stat = 't' }", "no statistic 't'");
    refused(S "s:pareto { min = {'a'} }", "at least two objectives");
    refused(S "s:random { lr = {1} }", "random needs n");
    refused(HEAD "ect.sweep 's' { base = ect.recipe 'digits-ect', eval = { nfee = 1 } }",
            "unknown eval setting 'nfee': did you mean 'nfe'?");
    refused(HEAD "ect.sweep 's' { base = ect.recipe 'digits-ect', eval = { ema = 'std1' } }",
            "its weights are: raw, std05");
    refused(HEAD "ect.sweep 's' { base = ect.recipe 'digits-ect', eval = { at = '10' } }", "not a percentage");
    refused(HEAD "ect.sweep 's' { base = ect.recipe 'digits-ect', eval = { sampler = 'heun', nfe = 4 } }",
            "nfe is odd");
    refused(HEAD "ect.sweep 's' { base = ect.recipe 'digits-ect', eval = { nfe = 3 } }", "need 2 noise levels");
    refused(HEAD "ect.sweep 's' { base = ect.recipe 'digits-ect', eval = { sampler = 'dpmp-2m' } }",
            "did you mean 'dpmpp-2m'?");
    refused(HEAD "ect.sweep 's' { base = ect.recipe 'digits-ect', eval = { sampler = 'ancestral-vp', nfe = 20 } }",
            "more than 20 evaluations");
    refused(HEAD "ect.sweep 's' { base = ect.recipe 'digits-ect', eval = { labels = 'class' } }", "class:K");
    refused(HEAD "ect.sweep 's' { base = ect.recipe 'digits-ect', eval = { sampler = 'euler', sigma_min = 90 } }",
            "must be below eval.sigma_max");
    refused(HEAD "ect.sweep 's' { base = ect.recipe 'digits-ect', eval = { churn = { 40, mix = 1 } } }", "churn.mi");
    refused(HEAD
            "local p = ect.run 'p' { ect.recipe 'digits-edm' }\nect.sweep 's' { init = p:weights { ema = 'std1' } }",
            "dir/test.lua:3: run p has no weights 'std1'");
    refused(HEAD
            "local p = ect.run 'p' { ect.recipe 'digits-edm' }\nect.sweep 's' { init = p:weights {}, replicates = 2 }",
            "has 2 replicates, but it starts from");
    struct script *s;
    assert_err(ERR_NO_DATA, open_text(&s, HEAD "ect.run 'r' { { data = 'nothing', c = ect.c_rule() } }"));
}

/* The order and content of cells do not depend on how Lua hashes. */
static void large(void **state)
{
    (void)state;
    struct script *s =
        accepted(HEAD "local function list(n, f) local t = {} for i = 1, n do t[i] = i * f end return t end\n"
                      "local s = ect.sweep 's' { base = ect.recipe 'digits-ect' }\n"
                      "s:grid { lr = list(100, 1e-5), c = list(50, .01), dropout = list(20, .01) }");
    assert_int_equal(script_ncells(s), 100000);
    assert_string_equal(script_cell_at(s, 99999)->cell, "c=0.5,dropout=0.2,lr=0.001");
    assert_int_equal(script_cell_at(s, 12345)->ordinal, 12345);
    script_close(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(methods),     cmocka_unit_test(random_draws), cmocka_unit_test(equal_draws),
        cmocka_unit_test(whole),       cmocka_unit_test(claims),       cmocka_unit_test(columns),
        cmocka_unit_test(experiments), cmocka_unit_test(demo),         cmocka_unit_test(recipes),
        cmocka_unit_test(networks),    cmocka_unit_test(samplers),     cmocka_unit_test(sets),
        cmocka_unit_test(mistakes),    cmocka_unit_test(large)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

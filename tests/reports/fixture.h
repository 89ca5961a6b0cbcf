/* A ledger as a small sweep would leave it, written through the ledger's own interface: pretraining x3, four cells x3, of which one run
 * diverged and one is still missing, with evaluations, controls, curves and pictures. Clock and host are pretended, so its reports have
 * the same bytes everywhere. */
#ifndef TESTS_REPORTS_FIXTURE_H
#define TESTS_REPORTS_FIXTURE_H

#include <unistd.h>

#include "db/ledger.h"
#include "tests/test.h"

struct fixture {
    bool mixed;           /* the cell c=0.0043 was evaluated with 1,000 samples */
    bool nan;             /* fd_random@2 of base, replicate 2, is not a number */
    bool variants;        /* one sampler with several settings */
    double halves;        /* fd_random of the real halves; 0: .011 */
    int replicates;       /* 0: 3 */
    const char *declared; /* NULL: the usual */
};

enum { FIXTURE_CELLS = 4 };
static const char fixture_script[] = "local ect = require \"ect\"\n"
                                     "local pre = ect.run \"pre\" { ect.recipe \"digits-edm\", replicates = 3 }\n"
                                     "local s = ect.sweep \"mapping\" { init = pre:weights { ema = \"std05\" }, base = "
                                     "ect.recipe \"digits-ect\", replicates = 3 }\n"
                                     "s:ablate { mapping = { const = ect.mapping.const{} }, c = {0, ect.c_rule()}, "
                                     "dropout = {0, .1} } -- <one at a time> & \"more\"\n";
static const char fixture_declared[] =
    "{\"kind\":\"sweep\",\"base\":\"base\",\"parents\":[\"pre\"],"
    "\"factors\":{\"mapping\":{\"base\":\"sigmoid\",\"labels\":[\"sigmoid\",\"const\"]},\"c\":{\"base\":\"0\","
    "\"labels\":[\"0\",\"0.0043\"]},"
    "\"dropout\":{\"base\":\"0\",\"labels\":[\"0\",\"0.1\"]}},"
    "\"tables\":[{\"rows\":\"cell\",\"cols\":[\"fd_random@1\",\"fd_random@2\",\"fd_pixel@1\",\"fd_pixel@2\"],\"vs\":"
    "null,\"stat\":\"paired95\"},"
    "{\"rows\":\"mapping\",\"cols\":[\"fd_random@1\",\"fd_random@2\"],\"vs\":\"const\",\"stat\":\"paired95\"}],"
    "\"pareto\":[{\"min\":[\"flops_total\",\"fd_random@2\"],\"max\":[],\"by\":\"nfe\"}],"
    "\"evals\":[{\"at\":[\"100%\"],\"nfe\":[1,2],\"sampler\":\"ect\",\"ema\":\"std05\",\"samples\":10000,\"metrics\":["
    "\"fd_pixel\",\"fd_random\"]}]}";
static const char fixture_declared_pre[] =
    "{\"kind\":\"run\",\"base\":\"pretrain\",\"parents\":[],\"factors\":{},\"tables\":[],\"pareto\":[],"
    "\"evals\":[{\"at\":[\"100%\"],\"nfe\":[1,2],\"sampler\":\"ect\",\"ema\":\"std05\",\"samples\":10000,\"metrics\":["
    "\"fd_pixel\",\"fd_random\"]},"
    "{\"at\":[\"100%\"],\"nfe\":[35],\"sampler\":\"heun\",\"ema\":\"std05\",\"samples\":10000,\"metrics\":[\"fd_"
    "pixel\",\"fd_random\"]}]}";

static int64_t fixture_clock = 1700000000000;
static inline int64_t fixture_now(void)
{
    return fixture_clock += 1000;
}
static inline const char *fixture_host(void)
{
    return "host";
}
static inline const char *fixture_boot(void)
{
    return "00000000-0000-0000-0000-000000000001";
}

/* Deterministic wobble in [-1, 1]. */
static inline double fixture_wobble(int a, int b, int c)
{
    uint64_t x = ((uint64_t)a * 73856093 ^ (uint64_t)b * 19349663 ^ (uint64_t)c * 83492791) * 2654435761u;
    x ^= x >> 13;
    return (double)(x % 2001) / 1000 - 1;
}

/* A grey picture as PNG with stored (uncompressed) blocks: discs in an 8 x 8 arrangement. */
static inline void fixture_png(struct text *png, int seed)
{
    enum { SIDE = 128, LINE = SIDE + 1, RAW = LINE * SIDE };
    static unsigned char raw[RAW], z[RAW + 16];
    for (int y = 0; y < SIDE; y++) {
        raw[y * LINE] = 0;
        for (int x = 0; x < SIDE; x++) {
            int cx = x % 16 - 8, cy = y % 16 - 8, r = 3 + (x / 16 + y / 16 * 3 + seed) % 4;
            raw[y * LINE + 1 + x] = cx * cx + cy * cy < r * r ? (unsigned char)(120 + 40 * (seed % 4)) : 0;
        }
    }
    unsigned a = 1, b = 0;
    for (int i = 0; i < RAW; i++) a = (a + raw[i]) % 65521, b = (b + a) % 65521;
    size_t n = 0;
    const unsigned char head[] = {0x78, 1, 1, RAW & 255, RAW >> 8, ~RAW & 255, (~RAW >> 8) & 255};
    memcpy(z, head, sizeof head), n = sizeof head;
    memcpy(z + n, raw, RAW), n += RAW;
    z[n++] = (unsigned char)(b >> 8), z[n++] = (unsigned char)b, z[n++] = (unsigned char)(a >> 8),
    z[n++] = (unsigned char)a;
    const unsigned char ihdr[] = {0, 0, 0, SIDE, 0, 0, 0, SIDE, 8, 0, 0, 0, 0};
    const struct {
        const char *type;
        const unsigned char *data;
        size_t size;
    } chunk[] = {{"IHDR", ihdr, sizeof ihdr}, {"IDAT", z, n}, {"IEND", z, 0}};
    text_addn(png, "\x89PNG\r\n\x1a\n", 8);
    for (size_t i = 0; i < ARRAY_LEN(chunk); i++) {
        uint32_t crc = crc32_of(crc32_of(0, chunk[i].type, 4), chunk[i].data, chunk[i].size);
        const uint32_t words[] = {(uint32_t)chunk[i].size, crc};
        char be[2][4];
        for (int k = 0; k < 2; k++)
            for (int j = 0; j < 4; j++) be[k][j] = (char)(words[k] >> (24 - 8 * j));
        text_addn(png, be[0], 4);
        text_addn(png, chunk[i].type, 4);
        text_addn(png, (const char *)chunk[i].data, chunk[i].size);
        text_addn(png, be[1], 4);
    }
}

static inline void fixture_artifact(struct ledger *l, const char *run, const char *role, int seed)
{
    struct text png = {0};
    char sha[SHA256_TEXT];
    fixture_png(&png, seed);
    assert_ok(ledger_put_blob(l, png.s, png.len, "image/png", sha));
    assert_ok(ledger_put_artifact(l, run, role, sha));
    text_done(&png);
}

/* more: further lines of the evaluator's identity */
static inline void fixture_eval_as(struct ledger *l, const char *run, const char *metric, const char *sampler, int nfe,
                                   int64_t step, int64_t samples, double value, const char *more)
{
    char canon[256], sha[SHA256_TEXT];
    snprintf(canon, sizeof canon,
             "metric=%s\nreference=digitsdata\nreference.count=1797\nsamples=%d\nsampler=%s\nnfe=%d\n%s", metric,
             (int)samples, sampler, nfe, more);
    sha256_text(canon, strlen(canon), sha);
    struct ledger_eval e = {.run_id = run,
                            .weights = "std05",
                            .step = step,
                            .evaluator_sha = sha,
                            .evaluator_canon = canon,
                            .metric = metric,
                            .sampler = sampler,
                            .nfe = nfe,
                            .samples = samples,
                            .seed = 0,
                            .value = value,
                            .seconds = 1.5,
                            .flops = 1e11};
    assert_ok(ledger_put_eval(l, &e));
}

static inline void fixture_eval(struct ledger *l, const char *run, const char *metric, const char *sampler, int nfe,
                                int64_t step, int64_t samples, double value)
{
    fixture_eval_as(l, run, metric, sampler, nfe, step, samples, value, "");
}

/* One run by the same sampler with other settings; the value says which. */
static inline void fixture_variants(struct ledger *l, const char *run, int64_t step)
{
    static const char *const more[] = {
        "t=80,2.5,0.002\nlabels=none\n",     "t=80,2.5,0.002\nchurn=40\nchurn.min=0\nlabels=none\n",
        "t=80,2.5,0.002\nlabels=balanced\n", "t=60,2.5,0.002\nlabels=none\n",
        "t=80,2.5,0.01\nlabels=none\n",      "t=80,2.5,0.002\nalpha=0.5\nlabels=iid from the data set\n",
        "t=80,2.5,0.002\nlabels=class:3\n"};
    for (int i = 0; i < (int)ARRAY_LEN(more); i++) {
        fixture_eval_as(l, run, "fd_pixel", "heun", 5, step, 10000, 100 + i, more[i]);
        fixture_eval_as(l, run, "fd_pixel", "dpmpp-2m", 10, step, 10000, 200 + i, more[i]);
    }
}

static inline void fixture_config(struct ledger *l, const char *cell, char hash[SHA256_TEXT])
{
    const char *c = strstr(cell, "c=") == cell ? "0.0043" : "0", *dropout = strstr(cell, "dropout=") ? "0.1" : "0",
               *mapping = strstr(cell, "mapping=") ? "const" : "sigmoid{k=8,b=1}",
               *target = strstr(cell, "pre") ? "edm" : "ect";
    char canon[256];
    snprintf(canon, sizeof canon, "c=%s\ndropout=%s\nmapping=%s\ntarget=%s\n", c, dropout, mapping, target);
    sha256_text(canon, strlen(canon), hash);
    const struct ledger_param p[] = {{"data", "digits", "train", true},       {"c", c, "train", !strcmp(c, "0")},
                                     {"dropout", dropout, "train", false},    {"mapping", mapping, "train", false},
                                     {"target", target, "train", false},      {"batch", "64", "train", false},
                                     {"eval.samples", "10000", "eval", true}, {"threads", "2", "exec", false}};
    assert_ok(ledger_put_config(l, hash, canon, p, (int)ARRAY_LEN(p)));
}

static inline void fixture_curve(struct ledger *l, const char *run, int64_t token, int cell, int k, int64_t iters)
{
    struct ledger_point p[400];
    int n = 0;
    for (int64_t step = 10; step <= iters; step += 10) {
        double x = (double)step / (double)iters, noise = 1 + .05 * fixture_wobble(cell, k, (int)step);
        p[n++] = (struct ledger_point){"loss", step, (.1 + .9 / (1 + 9 * x)) * (1 + .1 * cell) * noise};
        p[n++] = (struct ledger_point){"delta", step, (.3 + 2 / (1 + 14 * x)) * (1 + .2 * cell) * noise};
    }
    assert_ok(ledger_points(l, run, token, p, n));
}

static inline void fixture_train(struct ledger *l, const char *run, int cell, int k, enum run_status status,
                                 int64_t iters)
{
    struct ledger_claim c = {.device = "cpu", .threads = 2, .host = "host", .boot_id = fixture_boot(), .pid = 4242};
    int64_t token;
    int lock;
    assert_ok(ledger_run_lock(l, run, &lock));
    assert_ok(ledger_claim(l, run, &c, &token));
    assert_true(token != 0);
    assert_ok(ledger_segment(l, run, token, 0));
    const char *const prov[][2] = {{"git.revision", "0123456789abcdef0123456789abcdef01234567"},
                                   {"git.dirty", "no"},
                                   {"binary.sha", "feed"},
                                   {"cpu", "A CPU <model> 2.0 GHz"},
                                   {"isa", "avx2"},
                                   {"threads", "2"},
                                   {"lib.sqlite", "3.40.1"}};
    for (size_t i = 0; i < ARRAY_LEN(prov); i++) assert_ok(ledger_provenance(l, run, prov[i][0], prov[i][1]));
    fixture_curve(l, run, token, cell, k, iters);
    struct ledger_outcome o = {.status = status,
                               .reason = status == RUN_DIVERGED ? "loss is not finite at step 700" : "",
                               .step = iters,
                               .nimg = iters * 64,
                               .flops_executed = cell == 0 ? 2.5e12 : 3.1e12 + 1e11 * cell,
                               .seconds = 11 + .3 * cell + .1 * k,
                               .images_per_s = 8000};
    assert_ok(ledger_finish(l, run, token, &o));
    close(lock);
}

static inline void fixture_fill(struct ledger *l, const struct fixture *f)
{
    static const char *const cells[FIXTURE_CELLS] = {"base", "mapping=const", "c=0.0043", "dropout=0.1"};
    static const char *const factors[FIXTURE_CELLS] = {"{\"mapping\":\"sigmoid\",\"c\":\"0\",\"dropout\":\"0\"}",
                                                       "{\"mapping\":\"const\",\"c\":\"0\",\"dropout\":\"0\"}",
                                                       "{\"mapping\":\"sigmoid\",\"c\":\"0.0043\",\"dropout\":\"0\"}",
                                                       "{\"mapping\":\"sigmoid\",\"c\":\"0\",\"dropout\":\"0.1\"}"};
    static const double level[FIXTURE_CELLS][4] = {
        {.51, .4, .031, .024}, {.93, .61, .066, .041}, {.5, .41, .030, .026}, {.72, .48, .05, .03}};
    static const char *const metric[] = {"fd_pixel", "fd_pixel", "fd_random", "fd_random"};
    int reps = f->replicates ? f->replicates : 3;
    char script[SHA256_TEXT], hash[SHA256_TEXT], pre[3][RUN_ID_TEXT], run[RUN_ID_TEXT];
    int64_t sweep_pre, sweep;
    bool created;
    assert_ok(ledger_put_blob(l, fixture_script, sizeof fixture_script - 1, "text/x-lua", script));
    struct ledger_sweep s = {.name = "pre",
                             .script_sha = script,
                             .script_name = "experiments/demo.lua",
                             .sets = "",
                             .seed = 1,
                             .declared = fixture_declared_pre};
    assert_ok(ledger_put_sweep(l, &s, &sweep_pre));
    s.name = "mapping", s.declared = f->declared ? f->declared : fixture_declared;
    assert_ok(ledger_put_sweep(l, &s, &sweep));

    fixture_config(l, "pretrain", hash);
    for (int k = 0; k < reps; k++) {
        struct ledger_run_new r = {.config_hash = hash,
                                   .replicate = k + 1,
                                   .seed = 100 + (uint64_t)k,
                                   .flops_nominal = 2.4e12,
                                   .flops_predicted = 2.4e12,
                                   .units_paper = .001,
                                   .iters = 2000};
        assert_ok(ledger_put_run(l, &r, pre[k], &created));
        struct ledger_trial t = {sweep_pre, 0, "pretrain", "{}", k + 1, pre[k]};
        assert_ok(ledger_put_trial(l, &t));
        fixture_train(l, pre[k], 0, k, RUN_DONE, 2000);
        static const double value[] = {15.2, 3.3, 1.1,
                                       .21,  .25, .018}; /* pixel 1, 2; random 1, 2; Heun pixel, random */
        for (int i = 0; i < 6; i++)
            fixture_eval(l, pre[k],
                         i < 4    ? metric[i]
                         : i == 4 ? "fd_pixel"
                                  : "fd_random",
                         i < 4 ? "ect" : "heun", i < 4 ? 1 + i % 2 : 35, 2000, 10000,
                         value[i] * (1 + .04 * fixture_wobble(k, i, 1)));
        if (k == 0)
            fixture_artifact(l, pre[k], "grid:data", 0), fixture_artifact(l, pre[k], "grid:ect@1", 1),
                fixture_artifact(l, pre[k], "grid:heun35", 2);
    }
    for (int c = 0; c < FIXTURE_CELLS; c++) {
        fixture_config(l, cells[c], hash);
        for (int k = 0; k < reps; k++) {
            struct ledger_run_new r = {.config_hash = hash,
                                       .replicate = k + 1,
                                       .seed = 100 + (uint64_t)k,
                                       .parent_run = pre[k],
                                       .flops_nominal = 3e12,
                                       .flops_predicted = 3e12,
                                       .units_paper = .001,
                                       .iters = 1500};
            assert_ok(ledger_put_run(l, &r, run, &created));
            struct ledger_trial t = {sweep, c, cells[c], factors[c], k + 1, run};
            assert_ok(ledger_put_trial(l, &t));
            bool diverged = c == 1 && k == 2, missing = c == 3 && k == 2;
            if (missing) continue;
            fixture_train(l, run, 1 + c, k, diverged ? RUN_DIVERGED : RUN_DONE, 1500);
            if (diverged) continue;
            for (int i = 0; i < 4; i++) {
                double v = level[c][i] * (1 + .05 * fixture_wobble(k, i, 2) + .02 * fixture_wobble(k, i, 3 + c));
                if (f->nan && c == 0 && k == 1 && i == 3) v = NAN;
                fixture_eval(l, run, metric[i], "ect", 1 + i % 2, 1500, f->mixed && c == 2 ? 1000 : 10000, v);
            }
            if (f->variants) fixture_variants(l, run, 1500);
            if (f->variants && k == 0) fixture_artifact(l, run, "grid:ect@16", 6 + c);
            if (k == 0)
                fixture_artifact(l, run, "grid:ect@1", 3 + c), fixture_artifact(l, run, "grid:ect@2", 4 + c),
                    fixture_artifact(l, run, "grid:nearest@1", 5 + c);
        }
    }
    const struct {
        const char *name, *metric;
        double value;
    } control[] = {{"real_half", "fd_pixel", .16},
                   {"real_half", "fd_random", f->halves > 0 ? f->halves : .011},
                   {"gaussian", "fd_pixel", .02},
                   {"gaussian", "fd_random", 1.4}};
    for (size_t i = 0; i < ARRAY_LEN(control); i++) {
        char canon[128], sha[SHA256_TEXT];
        snprintf(canon, sizeof canon, "control=%s\nmetric=%s\n", control[i].name, control[i].metric);
        sha256_text(canon, strlen(canon), sha);
        struct ledger_eval e = {.run_id = NULL,
                                .weights = "",
                                .evaluator_sha = sha,
                                .evaluator_canon = canon,
                                .metric = control[i].metric,
                                .sampler = "",
                                .samples = 10000,
                                .value = control[i].value};
        assert_ok(ledger_put_control(l, "digitsdata", control[i].name, &e));
    }
}

/* Makes dir/ledger.db, goes there, and opens it for reading, so that the path in the report is the same everywhere. */
static inline struct ledger *fixture_open(const struct fixture *f)
{
    static char dir[256];
    struct ledger *l;
    fixture_clock = 1700000000000;
    host.now_ms = fixture_now, host.hostname = fixture_host, host.boot_id = fixture_boot;
    test_dir(dir, sizeof dir);
    if (chdir(dir)) abort();
    assert_ok(ledger_open(&l, "ledger.db", LEDGER_CREATE));
    assert_ok(ledger_begin(l)); /* one flush to disk instead of hundreds */
    fixture_fill(l, f);
    assert_ok(ledger_commit(l));
    ledger_close(l);
    assert_ok(ledger_open(&l, "ledger.db", LEDGER_READ));
    return l;
}

#endif

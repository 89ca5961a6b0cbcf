/* Makes a ledger of N runs: 5 replicates a configuration, 10 settings of their own and a base of defaults each, 5 summaries a run
 * and one evaluation. Usage: load FILE [RUNS]. Prints "load SECONDS BYTES". */
#include <math.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "core/spec.h"
#include "db/ledger.h"

enum { REPLICATES = 5, VALUES = 5, OWN = 10, DEFAULTS = 50, PER_TRANSACTION = 10000, PER_SWEEP = 20000 };

static double uniform(uint32_t i, uint32_t salt)
{
    uint32_t h = i * 2654435761u + salt;
    h ^= h >> 16, h *= 0x85ebca6bu, h ^= h >> 13, h *= 0xc2b2ae35u, h ^= h >> 16;
    return h / 4294967296.0;
}

static err_t put_config(struct ledger *l, int c, char hash[SHA256_TEXT])
{
    char own[OWN][2][32], base[DEFAULTS][16], canon[512];
    struct ledger_param p[OWN + DEFAULTS];
    int at = 0;
    for (int i = 0; i < OWN; i++) {
        /* a grid: every setting takes 4 values but the last, which tells configurations apart */
        int v = i + 1 < OWN ? (c >> (2 * i)) & 3 : c;
        snprintf(own[i][0], sizeof own[i][0], "factor%d", i);
        snprintf(own[i][1], sizeof own[i][1], "%d", v);
        at += snprintf(canon + at, sizeof canon - (size_t)at, "factor%d=%d\n", i, v);
        p[i] = (struct ledger_param){own[i][0], own[i][1], "train", false};
    }
    for (int i = 0; i < DEFAULTS; i++) {
        snprintf(base[i], sizeof base[i], "default%d", i);
        p[OWN + i] = (struct ledger_param){base[i], "0", "train", true};
    }
    sha256_text(canon, (size_t)at, hash);
    return ledger_put_config(l, hash, canon, p, OWN + DEFAULTS);
}

static err_t put_run(struct ledger *l, int run, const char *hash, int64_t sweep)
{
    static const char *const keys[VALUES] = {"loss", "delta", "weight", "lr", "grad.nonfinite"};
    uint32_t u = (uint32_t)run;
    double v[VALUES] = {uniform(u, 1), uniform(u, 2), uniform(u, 3), 1e-4, 0};
    char id[RUN_ID_TEXT], cell[32];
    bool created;
    struct ledger_import r = {.config_hash = hash,
                              .replicate = run % REPLICATES + 1,
                              .seed = u,
                              .step = 1000,
                              .iters = 1000,
                              .started_ms = 1700000000000 + (int64_t)run * 1000,
                              .flops_executed = 1e15 * exp(3 * uniform(u, 4)),
                              .seconds = 100,
                              .keys = keys,
                              .values = v,
                              .nvalues = VALUES};
    TRY(ledger_import_run(l, &r, id, &created));
    snprintf(cell, sizeof cell, "c=%d", run / REPLICATES);
    struct ledger_trial t = {
        .sweep = sweep, .ordinal = run % PER_SWEEP / REPLICATES, .cell = cell, .replicate = r.replicate, .run_id = id};
    TRY(ledger_put_trial(l, &t));
    struct ledger_eval e = {.run_id = id,
                            .weights = "raw",
                            .step = 1000,
                            .evaluator_sha = "bench",
                            .evaluator_canon = "metric=fd_pixel",
                            .metric = "fd_pixel",
                            .sampler = "ect",
                            .nfe = 2,
                            .samples = 1000,
                            .value = 10 * (0.1 + uniform(u, 5)) / log(r.flops_executed / 1e14)};
    return ledger_put_eval(l, &e);
}

static err_t load(const char *path, int runs)
{
    struct ledger *l;
    char sha[SHA256_TEXT], hash[SHA256_TEXT];
    int64_t sweep = 0;
    TRY(ledger_open(&l, path, LEDGER_CREATE));
    TRY(ledger_put_blob(l, "-- bench", 8, "text/x-lua", sha));
    for (int run = 0; run < runs; run++) {
        if (run % PER_TRANSACTION == 0) TRY(ledger_begin(l));
        if (run % PER_SWEEP == 0) {
            char name[32];
            snprintf(name, sizeof name, "sweep%d", run / PER_SWEEP);
            TRY(ledger_put_sweep(l, &(struct ledger_sweep){.name = name, .script_sha = sha, .declared = "{}"}, &sweep));
        }
        if (run % REPLICATES == 0) TRY(put_config(l, run / REPLICATES, hash));
        TRY(put_run(l, run, hash, sweep));
        if ((run + 1) % PER_TRANSACTION == 0 || run + 1 == runs) TRY(ledger_commit(l));
    }
    ledger_close(l);
    return ERR_OK;
}

int main(int argc, char **argv)
{
    struct stat st;
    if (argc < 2) return fprintf(stderr, "usage: load FILE [RUNS]\n"), 2;
    int64_t start = host.mono_ns();
    if (load(argv[1], argc > 2 ? atoi(argv[2]) : 1000000)) return fprintf(stderr, "%s\n", err_text()), 1;
    double seconds = 1e-9 * (double)(host.mono_ns() - start);
    if (stat(argv[1], &st)) return perror(argv[1]), 1;
    printf("load %.2f %lld\n", seconds, (long long)st.st_size);
    return 0;
}

/* Points a second that one process writes into a ledger, in batches of 1000, each a transaction. Usage: ledger FILE
 * [BATCHES]. */
#include <stdlib.h>
#include <unistd.h>

#include "db/ledger.h"

enum { BATCH = 1000, KEYS = 10 };

static err_t bench(const char *path, int batches, double *per_s)
{
    struct ledger *l;
    char id[RUN_ID_TEXT];
    bool created;
    int fd;
    int64_t token;
    static const char *const keys[KEYS] = {"loss",         "delta",        "weight",      "lr",          "loss[lnt=-3]",
                                           "loss[lnt=-2]", "loss[lnt=-1]", "loss[lnt=0]", "loss[lnt=1]", "loss[lnt=2]"};
    TRY(ledger_open(&l, path, LEDGER_CREATE));
    TRY(ledger_put_config(l, "bench", "", NULL, 0));
    TRY(ledger_put_run(l, &(struct ledger_run_new){.config_hash = "bench", .replicate = 1}, id, &created));
    TRY(ledger_run_lock(l, id, &fd));
    TRY(ledger_claim(l, id, &(struct ledger_claim){.threads = 1}, &token));
    TRY(ledger_segment(l, id, token, 0));
    int64_t start = host.mono_ns();
    for (int b = 0; b < batches; b++) {
        struct ledger_point p[BATCH];
        for (int i = 0; i < BATCH; i++)
            p[i] = (struct ledger_point){keys[i % KEYS], (int64_t)b * (BATCH / KEYS) + i / KEYS, 1.0 / (i + 1)};
        TRY(ledger_points(l, id, token, p, BATCH));
    }
    *per_s = 1e9 * BATCH * batches / (double)(host.mono_ns() - start);
    close(fd);
    ledger_close(l);
    return ERR_OK;
}

int main(int argc, char **argv)
{
    double per_s;
    if (argc < 2) return fprintf(stderr, "usage: ledger FILE [BATCHES]\n"), 2;
    if (bench(argv[1], argc > 2 ? atoi(argv[2]) : 300, &per_s)) return fprintf(stderr, "%s\n", err_text()), 1;
    printf("insert %.0f\n", per_s);
    return 0;
}

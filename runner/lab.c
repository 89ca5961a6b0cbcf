#include "runner/lab.h"

#include <stdlib.h>
#include <string.h>

#include "core/metrics/weights.h"
#include "core/train.h"
#include "db/query.h"
#include "runner/fetch.h"

static err_t host_predict(void *ctx, const struct spec *s, double *flops_total, double *flops_executed, double *params)
{
    struct dataset *d;
    struct train_cost cost;
    TRY(lab_data(ctx, s->data.s, &d));
    TRY(train_predict(s, d, &cost));
    *flops_total = *flops_executed = cost.flops_executed;
    *params = (double)cost.params;
    return ERR_OK;
}

static err_t host_data_info(void *ctx, const char *name, int *dim, double *rms)
{
    struct dataset *d;
    TRY(lab_data(ctx, name, &d));
    *dim = d->h * d->w * d->c;
    *rms = d->std;
    return ERR_OK;
}

/* A path, or the name of weights that were fetched or added. */
static err_t host_init_file(void *ctx, const char *name, char **path, char sha[SHA256_TEXT])
{
    (void)ctx;
    if (file_exists(name)) {
        char *full = realpath(name, NULL); /* a worker may run elsewhere */
        *path = mem_strdup(full ? full : name);
        free(full);
    } else {
        const struct fetch_row *row = fetch_find(FETCH_WEIGHTS, name);
        if (row) TRY(weights_find(row->name, path));
        else if (strchr(name, '/') || weights_find(name, path))
            return fail(ERR_NO_DATA, "init = %s: there is no such file%s", name,
                        strchr(name, '/') ? "" : ", and no weights of that name (`ect weights ls`)");
    }
    err_t err = weights_file_sha(*path, sha);
    if (!err) return ERR_OK;
    mem_free(*path);
    *path = NULL;
    return fail_in(err, "init");
}

void lab_init(struct lab *b, struct ledger *ledger)
{
    *b = (struct lab){
        .ledger = ledger,
        .host = {.ctx = b, .predict = host_predict, .data_info = host_data_info, .init_file = host_init_file}};
}

void lab_done(struct lab *b)
{
    for (int i = 0; i < b->ndata; i++) dataset_free(b->data[i]);
    ledger_close(b->ledger);
    text_done(&b->data_missing);
    *b = (struct lab){.ndata = 0};
}

err_t lab_data(struct lab *b, const char *name, struct dataset **d)
{
    for (int i = 0; i < b->ndata; i++)
        if (!strcmp(b->data[i]->name, name)) {
            *d = b->data[i];
            return ERR_OK;
        }
    if (b->ndata == LAB_DATA) return fail(ERR_FAILED, "more than %d data sets in one script", LAB_DATA);
    err_t err = dataset_open(d, name);
    if (err == ERR_NO_DATA && b->shapes && (*d = dataset_shape_of(name))) {
        text_addf(&b->data_missing, "warning: nothing can be trained yet: %s\n", err_text());
        err = ERR_OK;
    }
    if (err) return err;
    b->data[b->ndata++] = *d;
    return ERR_OK;
}

err_t lab_data_of_run(struct lab *b, const char *name, const char *run_id, struct dataset **d)
{
    struct table t;
    TRY(lab_data(b, name, d));
    TRY(query(b->ledger, &t, "SELECT value FROM v_provenance WHERE run = ? AND key = 'data.sha'", "s", run_id));
    err_t err = ERR_OK;
    if (t.nrows && strcmp(table_at(&t, 0, 0)->text, (*d)->sha) != 0)
        err = fail(
            ERR_FAILED,
            "run %s was trained on other contents of the data set %s (%.12s..., now %.12s...): import those again, "
            "or this one under another name",
            run_id, name, table_at(&t, 0, 0)->text, (*d)->sha);
    table_done(&t);
    return err;
}

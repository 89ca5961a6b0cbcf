/* import: runs that were made elsewhere. They have an outcome but no life here: no claim, no segment, no curve, only what each curve
 * came to. */
#include <math.h>

#include "db/db.h"

static err_t put_import(struct ledger *l, const struct ledger_import *r, const char *id, bool *created)
{
    int64_t config = 0, row = 0, key = 0;
    bool found;
    TRY(db_int(l, &config, &found, "SELECT n FROM config WHERE hash = ?", "s", r->config_hash));
    if (!found) return fail(ERR_NOT_FOUND, "a run of configuration %.12s, which is not in the ledger", r->config_hash);
    TRY(db_int(l, &row, created,
               "INSERT INTO run(id, config, replicate, seed, status, kind, step, iters, flops_closed, seconds_closed, "
               "started_ms, created_ms, flops_above) VALUES(?,?,?,?,'done','imported',?,?,?,?,nullif(?,0),?,0) "
               "ON CONFLICT DO NOTHING RETURNING n",
               "siniiiddii", id, config, r->replicate, (int64_t)r->seed, r->step, r->iters, r->flops_executed,
               r->seconds, r->started_ms, now_ms()));
    if (!*created) return ERR_OK;
    for (int i = 0; i < r->nvalues; i++) {
        int special = special_of(r->values[i]);
        TRY(key_row(l, r->keys[i], &key));
        TRY(db_run(
            l,
            "INSERT INTO summary(run, key, points, specials, last, last_special, last_step) VALUES(?,?,1,?,?,?,?) "
            "ON CONFLICT DO NOTHING",
            "iindni", row, key, (int)(special != 0), special ? NAN : r->values[i], special, r->step));
    }
    return ERR_OK;
}

err_t ledger_import_run(struct ledger *l, const struct ledger_import *r, char id[RUN_ID_TEXT], bool *created)
{
    bool own;
    ledger_run_id(r->config_hash, r->replicate, id);
    TRY(tx_enter(l, true, &own));
    return tx_leave(l, own, put_import(l, r, id, created));
}

/* numbers: metric points, evaluations, controls, pictures. A number is stored as it is: NaN and infinities too. */
#include <math.h>
#include <string.h>

#include "db/curve.h"
#include "db/db.h"

/* ---- points ------------------------------------------------------------------------------------------------------ */

/* Keys met in one batch. Not kept for longer: a key that was new goes away if its transaction does. */
struct key_cache {
    struct {
        const char *name;
        int64_t n;
    } seen[64];
    size_t used;
};

err_t key_row(struct ledger *l, const char *name, int64_t *n)
{
    bool found;
    TRY(db_int(l, n, &found, "SELECT n FROM key WHERE name = ?", "s", name));
    return found ? ERR_OK : db_int(l, n, &found, "INSERT INTO key(name) VALUES(?) RETURNING n", "s", name);
}

static err_t key_cached(struct ledger *l, struct key_cache *c, const char *name, int64_t *n)
{
    for (size_t i = 0; i < c->used; i++)
        if (c->seen[i].name == name || !strcmp(c->seen[i].name, name)) {
            *n = c->seen[i].n;
            return ERR_OK;
        }
    TRY(key_row(l, name, n));
    if (c->used < ARRAY_LEN(c->seen)) {
        c->seen[c->used].name = name;
        c->seen[c->used++].n = *n;
    }
    return ERR_OK;
}

static err_t put_points(struct ledger *l, const char *id, int64_t token, const struct ledger_point *p, int n)
{
    int64_t run, segment = 0, newest = 0;
    struct key_cache keys = {.used = 0};
    bool found;
    err_t err = ERR_OK;
    sqlite3_stmt *st;
    TRY(run_owned(l, id, token, &run));
    TRY(db_int(l, &segment, &found, "SELECT max(segment) FROM segment WHERE run = ?", "i", run));
    if (!found) return fail(ERR_FAILED, "metrics of run %s before ledger_segment", id);
    int64_t *key = mem_array((size_t)n, sizeof *key);
    for (int i = 0; i < n; i++) TRYD(key_cached(l, &keys, p[i].key, &key[i]));
    /* bound by hand: this loop is what logging costs */
    TRYD(db_stmt(l,
                 "INSERT INTO point(run, key, step, segment, value, special) VALUES(?,?,?,?,?,?) ON CONFLICT DO UPDATE "
                 "SET value = excluded.value, special = excluded.special",
                 &st));
    sqlite3_bind_int64(st, 1, run);
    sqlite3_bind_int64(st, 4, segment);
    for (int i = 0; i < n && !err; i++) {
        int special = special_of(p[i].value);
        sqlite3_bind_int64(st, 2, key[i]);
        sqlite3_bind_int64(st, 3, p[i].step);
        if (special) sqlite3_bind_null(st, 5);
        else sqlite3_bind_double(st, 5, p[i].value);
        sqlite3_bind_int(st, 6, special);
        int rc = sqlite3_step(st);
        if (rc != SQLITE_DONE) err = db_fail(l, rc, "write");
        sqlite3_reset(st);
        if (p[i].step > newest) newest = p[i].step;
    }
    if (!err) err = summary_add(l, run, p, key, n);
    if (!err) err = db_run(l, "UPDATE run SET step = ?2 WHERE n = ?1 AND step < ?2", "ii", run, newest);
done:
    mem_free(key);
    return err;
}

err_t ledger_points(struct ledger *l, const char *id, int64_t token, const struct ledger_point *p, int n)
{
    bool own;
    if (n == 0) return ERR_OK;
    TRY(tx_enter(l, false, &own));
    return tx_leave(l, own, put_points(l, id, token, p, n));
}

/* ---- evaluations ------------------------------------------------------------------------------------------------- */

static err_t evaluator_row(struct ledger *l, const struct ledger_eval *e, int64_t *n)
{
    bool found;
    TRY(db_run(l, "INSERT INTO evaluator(sha, canon) VALUES(?,?) ON CONFLICT DO NOTHING", "ss", e->evaluator_sha,
               e->evaluator_canon ? e->evaluator_canon : ""));
    return db_int(l, n, &found, "SELECT n FROM evaluator WHERE sha = ?", "s", e->evaluator_sha);
}

static err_t put_eval(struct ledger *l, const struct ledger_eval *e)
{
    int64_t run, evaluator;
    TRY(run_row(l, e->run_id, &run));
    TRY(evaluator_row(l, e, &evaluator));
    return db_run(
        l,
        "INSERT INTO eval(run, step, weights, evaluator, metric, sampler, nfe, samples, seed, value, seconds, flops, "
        "created_ms) "
        "VALUES(?,?,?,?,?,?,?,?,?,?,?,?,?) ON CONFLICT DO UPDATE SET sampler = excluded.sampler, nfe = excluded.nfe, "
        "samples = excluded.samples, seed = excluded.seed, value = excluded.value, seconds = excluded.seconds, "
        "flops = excluded.flops, created_ms = excluded.created_ms",
        "iisissniidddi", run, e->step, e->weights, evaluator, e->metric, e->sampler, e->nfe, e->samples,
        (int64_t)e->seed, e->value, e->seconds, e->flops, now_ms());
}

err_t ledger_put_eval(struct ledger *l, const struct ledger_eval *e)
{
    bool own;
    TRY(tx_enter(l, true, &own));
    return tx_leave(l, own, put_eval(l, e));
}

static bool has(err_t err, bool found)
{
    if (err) log_warn("%s", err_text());
    return !err && found;
}

bool ledger_has_eval(struct ledger *l, const char *run_id, int64_t step, const char *weights, const char *evaluator_sha)
{
    int64_t yes;
    bool found;
    err_t err = db_int(l, &yes, &found,
                       "SELECT 1 FROM run r JOIN eval e ON e.run = r.n JOIN evaluator v ON v.n = e.evaluator "
                       "WHERE r.id = ? AND e.step = ? AND e.weights = ? AND v.sha = ?",
                       "siss", run_id, step, weights, evaluator_sha);
    return has(err, found);
}

/* ---- controls ---------------------------------------------------------------------------------------------------- */

static err_t put_control(struct ledger *l, const char *dataset, const char *name, const struct ledger_eval *e)
{
    int64_t evaluator;
    TRY(evaluator_row(l, e, &evaluator));
    return db_run(l,
                  "INSERT INTO control(dataset, name, evaluator, metric, samples, seed, value, seconds, created_ms) "
                  "VALUES(?,?,?,?,?,?,?,?,?) "
                  "ON CONFLICT DO UPDATE SET samples = excluded.samples, seed = excluded.seed, value = excluded.value, "
                  "seconds = excluded.seconds, created_ms = excluded.created_ms",
                  "ssisiiddi", dataset, name, evaluator, e->metric, e->samples, (int64_t)e->seed, e->value, e->seconds,
                  now_ms());
}

err_t ledger_put_control(struct ledger *l, const char *dataset, const char *name, const struct ledger_eval *e)
{
    bool own;
    TRY(tx_enter(l, true, &own));
    return tx_leave(l, own, put_control(l, dataset, name, e));
}

bool ledger_has_control(struct ledger *l, const char *dataset, const char *name, const char *evaluator_sha)
{
    int64_t yes;
    bool found;
    err_t err = db_int(l, &yes, &found,
                       "SELECT 1 FROM control c JOIN evaluator v ON v.n = c.evaluator WHERE c.dataset = ? AND c.name = "
                       "? AND v.sha = ?",
                       "sss", dataset, name, evaluator_sha);
    return has(err, found);
}

/* ---- pictures ---------------------------------------------------------------------------------------------------- */

static err_t put_artifact(struct ledger *l, const char *run_id, const char *role, const char *sha)
{
    int64_t run, yes;
    bool found;
    TRY(run_row(l, run_id, &run));
    TRY(db_int(l, &yes, &found, "SELECT 1 FROM blob WHERE sha = ?", "s", sha));
    if (!found) return fail(ERR_NOT_FOUND, "%s of run %s: no blob %.12s in the ledger", role, run_id, sha);
    return db_run(l, "INSERT INTO artifact(run, role, sha) VALUES(?,?,?) ON CONFLICT DO UPDATE SET sha = excluded.sha",
                  "iss", run, role, sha);
}

err_t ledger_put_artifact(struct ledger *l, const char *run_id, const char *role, const char *blob_sha)
{
    bool own;
    TRY(tx_enter(l, true, &own));
    return tx_leave(l, own, put_artifact(l, run_id, role, blob_sha));
}

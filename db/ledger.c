/* ledger: what is written before the first step, and the rows that name it. Everything here may be written again: the
 * same thing twice is the same row. */
#include "db/ledger.h"

#include <math.h>
#include <string.h>

#include "db/db.h"

/* ---- blobs ------------------------------------------------------------------------------------------------------- */

err_t ledger_put_blob(struct ledger *l, const void *data, size_t n, const char *mime, char sha[SHA256_TEXT])
{
    bool own;
    sha256_text(data, n, sha);
    TRY(tx_enter(l, true, &own));
    return tx_leave(
        l, own,
        db_run(l, "INSERT INTO blob(sha, size, mime, data, created_ms) VALUES(?,?,?,?,?) ON CONFLICT DO NOTHING",
               "sisbi", sha, (int64_t)n, mime ? mime : "application/octet-stream", data, n, now_ms()));
}

err_t ledger_get_blob(struct ledger *l, const char *sha, char **data, size_t *n)
{
    int64_t row;
    bool found;
    TRY(db_int(l, &row, &found, "SELECT rowid FROM blob WHERE sha = ?", "s", sha));
    if (!found) return fail(ERR_NOT_FOUND, "no blob %.12s in ledger %s", sha, l->path);
    sqlite3_blob *b;
    int rc = sqlite3_blob_open(l->db, "main", "blob", "data", row, 0, &b);
    if (rc) return db_fail(l, rc, "blob");
    int bytes = sqlite3_blob_bytes(b);
    *data = mem_alloc((size_t)bytes + 1); /* NUL-terminated past the end, as file_read does */
    *n = (size_t)bytes;
    err_t err = ERR_OK;
    if (bytes && (rc = sqlite3_blob_read(b, *data, bytes, 0))) err = db_fail(l, rc, "blob");
    char real[SHA256_TEXT];
    if (!err) {
        sha256_text(*data, *n, real);
        if (strcmp(real, sha)) err = fail(ERR_FORMAT, "ledger %s: blob %.12s is damaged", l->path, sha);
    }
    sqlite3_blob_close(b);
    if (err) {
        mem_free(*data);
        *data = NULL;
    }
    return err;
}

/* ---- configurations ---------------------------------------------------------------------------------------------- */

static err_t setting_row(struct ledger *l, const struct ledger_param *p, int64_t *n)
{
    double num;
    bool found;
    TRY(db_int(l, n, &found, "SELECT n FROM setting WHERE key = ? AND text = ? AND class = ? AND is_default = ?",
               "sssn", p->key, p->text, p->class, (int)p->is_default));
    if (found) return ERR_OK;
    if (!num_parse(p->text, &num)) num = NAN;
    return db_int(l, n, &found, "INSERT INTO setting(key, text, num, class, is_default) VALUES(?,?,?,?,?) RETURNING n",
                  "ssdsn", p->key, p->text, num, p->class, (int)p->is_default);
}

/* The base of configurations with this list of settings. */
static err_t base_row(struct ledger *l, const struct ledger_param *p, int n, int64_t *row)
{
    struct sha256 s;
    uint8_t digest[SHA256_BYTES];
    char sha[SHA256_TEXT];
    bool found;
    sha256_init(&s);
    for (int i = 0; i < n; i++) {
        sha256_add(&s, p[i].key, strlen(p[i].key) + 1);
        sha256_add(&s, p[i].class, strlen(p[i].class) + 1);
    }
    sha256_end(&s, digest);
    sha256_hex(digest, sha);
    TRY(db_int(l, row, &found, "SELECT n FROM base WHERE sha = ?", "s", sha));
    return found ? ERR_OK : db_int(l, row, &found, "INSERT INTO base(sha) VALUES(?) RETURNING n", "s", sha);
}

/* Whether the base says the same of a setting; a default that no configuration of the base has had yet is put there. */
static err_t in_base(struct ledger *l, int64_t base, const struct ledger_param *p, int64_t setting, bool *same)
{
    int64_t there;
    bool found;
    *same = false;
    if (!p->is_default) return ERR_OK;
    TRY(db_int(
        l, &there, &found,
        "SELECT b.setting FROM setting s JOIN base_setting b ON b.base = ?1 AND b.setting = s.n WHERE s.key = ?2", "is",
        base, p->key));
    if (!found) TRY(db_run(l, "INSERT INTO base_setting(base, setting) VALUES(?,?)", "ii", base, setting));
    *same = !found || there == setting;
    return ERR_OK;
}

static err_t put_config(struct ledger *l, const char *hash, const char *canon, const struct ledger_param *p, int n)
{
    int64_t row = 0, base = 0, setting;
    bool old, same;
    TRY(db_int(l, &row, &old, "SELECT n FROM config WHERE hash = ?", "s", hash));
    if (n) TRY(base_row(l, p, n, &base));
    if (!old)
        TRY(db_int(l, &row, &same,
                   "INSERT INTO config(hash, canon, created_ms, base) VALUES(?,?,?,nullif(?,0)) RETURNING n", "ssii",
                   hash, canon, now_ms(), base));
    else if (n) TRY(db_run(l, "UPDATE config SET base = ?2 WHERE n = ?1 AND base IS NOT ?2", "ii", row, base));
    for (int i = 0; i < n; i++) {
        TRY(setting_row(l, &p[i], &setting));
        TRY(in_base(l, base, &p[i], setting, &same));
        if (old) /* said anew: eval and exec settings may have changed */
            TRY(db_run(l,
                       "DELETE FROM config_setting WHERE config = ?1 AND setting <> ?3 AND setting IN (SELECT n FROM "
                       "setting WHERE key = ?2)",
                       "isi", row, p[i].key, same ? (int64_t)-1 : setting));
        if (!same)
            TRY(db_run(l, "INSERT INTO config_setting(config, setting) VALUES(?,?) ON CONFLICT DO NOTHING", "ii", row,
                       setting));
    }
    return ERR_OK;
}

err_t ledger_put_config(struct ledger *l, const char *hash, const char *canon, const struct ledger_param *params, int n)
{
    bool own;
    TRY(tx_enter(l, true, &own));
    return tx_leave(l, own, put_config(l, hash, canon, params, n));
}

err_t ledger_get_config(struct ledger *l, const char *hash, char **canon)
{
    TRY(db_str(l, canon, "SELECT canon FROM config WHERE hash = ?", "s", hash));
    return *canon ? ERR_OK : fail(ERR_NOT_FOUND, "no configuration %.12s in ledger %s", hash, l->path);
}

err_t ledger_get_param(struct ledger *l, const char *config_hash, const char *key, char **text)
{
    TRY(db_str(l, text,
               "SELECT s.text FROM config c JOIN config_setting x ON x.config = c.n JOIN setting s ON s.n = x.setting "
               "WHERE c.hash = ?1 AND s.key = ?2 UNION ALL "
               "SELECT s.text FROM config c JOIN base_setting x ON x.base = c.base JOIN setting s ON s.n = x.setting "
               "WHERE c.hash = ?1 AND s.key = ?2",
               "ss", config_hash, key));
    return *text ? ERR_OK
                 : fail(ERR_NOT_FOUND, "no setting %s of configuration %.12s in ledger %s", key, config_hash, l->path);
}

/* ---- sweeps and trials ------------------------------------------------------------------------------------------- */

static err_t put_sweep(struct ledger *l, const struct ledger_sweep *s, int64_t *id)
{
    bool found;
    TRY(db_int(l, id, &found, "SELECT 1 FROM blob WHERE sha = ?", "s", s->script_sha));
    if (!found) return fail(ERR_NOT_FOUND, "sweep %s: its script %.12s is not in the ledger", s->name, s->script_sha);
    TRY(db_run(
        l,
        "INSERT INTO sweep(name, script_sha, script_name, sets, seed, declared, declared_ms) VALUES(?,?,?,?,?,?,?) "
        "ON CONFLICT DO UPDATE SET script_name = excluded.script_name, sets = excluded.sets, seed = excluded.seed, "
        "declared = excluded.declared, declared_ms = excluded.declared_ms",
        "ssssisi", s->name, s->script_sha, s->script_name ? s->script_name : "", s->sets ? s->sets : "", s->seed,
        s->declared ? s->declared : "{}", now_ms()));
    return db_int(l, id, &found, "SELECT n FROM sweep WHERE name = ? AND script_sha = ? AND sets = ?", "sss", s->name,
                  s->script_sha, s->sets ? s->sets : "");
}

err_t ledger_put_sweep(struct ledger *l, const struct ledger_sweep *s, int64_t *id)
{
    bool own;
    TRY(tx_enter(l, true, &own));
    return tx_leave(l, own, put_sweep(l, s, id));
}

static err_t put_trial(struct ledger *l, const struct ledger_trial *t)
{
    int64_t run;
    TRY(run_row(l, t->run_id, &run));
    /* a cell that is gone from the script may still sit on this ordinal */
    TRY(db_run(l, "UPDATE trial SET hidden = 1 WHERE sweep = ? AND ordinal = ? AND cell <> ? AND NOT hidden", "ins",
               t->sweep, t->ordinal, t->cell));
    return db_run(l,
                  "INSERT INTO trial(sweep, ordinal, cell, factors, replicate, run) VALUES(?,?,?,?,?,?) ON CONFLICT DO "
                  "UPDATE SET "
                  "ordinal = excluded.ordinal, factors = excluded.factors, run = excluded.run, hidden = 0",
                  "inssni", t->sweep, t->ordinal, t->cell, t->factors ? t->factors : "{}", t->replicate, run);
}

err_t ledger_put_trial(struct ledger *l, const struct ledger_trial *t)
{
    bool own;
    TRY(tx_enter(l, true, &own));
    return tx_leave(l, own, put_trial(l, t));
}

err_t ledger_hide_trials_after(struct ledger *l, int64_t sweep, int count)
{
    bool own;
    TRY(tx_enter(l, true, &own));
    return tx_leave(
        l, own,
        db_run(l, "UPDATE trial SET hidden = 1 WHERE sweep = ? AND ordinal >= ? AND NOT hidden", "in", sweep, count));
}

/* ---- runs -------------------------------------------------------------------------------------------------------- */

err_t run_row(struct ledger *l, const char *id, int64_t *n)
{
    bool found;
    TRY(db_int(l, n, &found, "SELECT n FROM run WHERE id = ?", "s", id));
    return found ? ERR_OK : fail(ERR_NOT_FOUND, "no run %s in ledger %s", id, l->path);
}

void ledger_run_id(const char *config_hash, int replicate, char id[RUN_ID_TEXT])
{
    char sha[SHA256_TEXT], *s = mem_printf("%s:%d", config_hash, replicate);
    sha256_text(s, strlen(s), sha);
    mem_free(s);
    memcpy(id, sha, RUN_ID_TEXT - 1);
    id[RUN_ID_TEXT - 1] = '\0';
}

static err_t put_run(struct ledger *l, const struct ledger_run_new *r, const char *id, bool *created)
{
    int64_t config = 0, parent = 0, row;
    bool found, exists;
    TRY(db_int(l, &row, &exists, "SELECT n FROM run WHERE id = ?", "s", id));
    *created = !exists;
    if (exists) return ERR_OK;
    TRY(db_int(l, &config, &found, "SELECT n FROM config WHERE hash = ?", "s", r->config_hash));
    if (!found) return fail(ERR_NOT_FOUND, "a run of configuration %.12s, which is not in the ledger", r->config_hash);
    bool child = r->parent_run && *r->parent_run;
    if (child) TRY(run_row(l, r->parent_run, &parent));
    return db_run(l,
                  "INSERT INTO run(id, config, replicate, seed, parent, flops_nominal, flops_predicted, units_paper, "
                  "iters, created_ms, flops_above) "
                  "VALUES(?1,?2,?3,?4,nullif(?5,0),?6,?7,?8,?9,?10, CASE WHEN ?5 = 0 THEN 0.0 END)",
                  "siniidddii", id, config, r->replicate, (int64_t)r->seed, parent, r->flops_nominal,
                  r->flops_predicted, r->units_paper, r->iters, now_ms());
}

err_t ledger_put_run(struct ledger *l, const struct ledger_run_new *r, char id[RUN_ID_TEXT], bool *created)
{
    bool own;
    ledger_run_id(r->config_hash, r->replicate, id);
    TRY(tx_enter(l, true, &own));
    return tx_leave(l, own, put_run(l, r, id, created));
}

static const char *const status_names[] = {"pending",  "running",     "done",   "failed",
                                           "diverged", "interrupted", "blocked"};

const char *run_status_name(enum run_status s)
{
    return status_names[s];
}

static enum run_status status_of(const char *name)
{
    for (size_t i = 0; i < ARRAY_LEN(status_names); i++)
        if (!strcmp(name, status_names[i])) return (enum run_status)i;
    return RUN_FAILED; /* a CHECK keeps other words out */
}

static const char *column(sqlite3_stmt *st, int i)
{
    const char *s = (const char *)sqlite3_column_text(st, i);
    return s ? s : "";
}

err_t ledger_get_run(struct ledger *l, const char *id, struct ledger_run *out)
{
    sqlite3_stmt *st;
    *out = (struct ledger_run){0};
    TRY(db_stmt(l,
                "SELECT r.id, c.hash, p.id, r.replicate, r.attempt, r.threads, r.seed, r.status, r.token, r.step, "
                "r.iters, r.reason, "
                "r.device FROM run r JOIN config c ON c.n = r.config LEFT JOIN run p ON p.n = r.parent WHERE r.id = ?",
                &st));
    sqlite3_bind_text(st, 1, id, -1, SQLITE_TRANSIENT);
    int rc = sqlite3_step(st);
    if (rc == SQLITE_ROW) {
        snprintf(out->id, sizeof out->id, "%s", column(st, 0));
        snprintf(out->config_hash, sizeof out->config_hash, "%s", column(st, 1));
        snprintf(out->parent_run, sizeof out->parent_run, "%s", column(st, 2));
        out->replicate = sqlite3_column_int(st, 3);
        out->attempt = sqlite3_column_int(st, 4);
        out->threads = sqlite3_column_int(st, 5);
        out->seed = (uint64_t)sqlite3_column_int64(st, 6);
        out->status = status_of(column(st, 7));
        out->token = sqlite3_column_int64(st, 8);
        out->step = sqlite3_column_int64(st, 9);
        out->iters = sqlite3_column_int64(st, 10);
        out->reason = mem_strdup(column(st, 11));
        out->device = mem_strdup(column(st, 12));
    }
    err_t err = ERR_OK;
    if (rc == SQLITE_DONE) err = fail(ERR_NOT_FOUND, "no run %s in ledger %s", id, l->path);
    else if (rc != SQLITE_ROW) err = db_fail(l, rc, "read");
    sqlite3_reset(st);
    return err;
}

void ledger_run_done(struct ledger_run *r)
{
    mem_free(r->reason);
    mem_free(r->device);
    r->reason = r->device = NULL;
}

/* ---- names of runs ----------------------------------------------------------------------------------------------- */

static err_t resolve_newest(struct ledger *l, const char *prefix, char id[RUN_ID_TEXT])
{
    int64_t back;
    char *found;
    if (!int_parse(prefix + 2, &back) || back < 1)
        return fail(ERR_USAGE, "run %s: @-1 is the newest run, @-2 the one before", prefix);
    TRY(db_str(l, &found, "SELECT id FROM run ORDER BY n DESC LIMIT 1 OFFSET ?", "i", back - 1));
    if (!found) return fail(ERR_NOT_FOUND, "no run %s: ledger %s has fewer", prefix, l->path);
    snprintf(id, RUN_ID_TEXT, "%s", found);
    mem_free(found);
    return ERR_OK;
}

err_t ledger_resolve_run(struct ledger *l, const char *prefix, char id[RUN_ID_TEXT])
{
    enum { SHOWN = 8 };
    if (!strncmp(prefix, "@-", 2)) return resolve_newest(l, prefix, id);
    size_t n = strlen(prefix);
    if (!n || n >= RUN_ID_TEXT || strspn(prefix, "0123456789abcdef") != n)
        return fail(ERR_NOT_FOUND,
                    "no run \"%s\": a run is named by its id, the beginning of it, or @-1 for the newest", prefix);
    sqlite3_stmt *st;
    TRY(db_stmt(l,
                "SELECT id, (SELECT cell || ' ' || replicate FROM trial WHERE run = run.n ORDER BY hidden, n DESC "
                "LIMIT 1) FROM run "
                "WHERE id >= ?1 AND id < ?1 || 'g' ORDER BY id LIMIT 9",
                &st));
    sqlite3_bind_text(st, 1, prefix, -1, SQLITE_TRANSIENT);
    struct text many = {0};
    int rc, rows = 0;
    while ((rc = sqlite3_step(st)) == SQLITE_ROW) {
        if (!rows) snprintf(id, RUN_ID_TEXT, "%s", column(st, 0));
        if (rows++ < SHOWN) text_addf(&many, "\n  %s  %s", column(st, 0), column(st, 1));
        else text_add(&many, "\n  ...");
    }
    err_t err = ERR_OK;
    if (rc != SQLITE_DONE) err = db_fail(l, rc, "read");
    else if (!rows) err = fail(ERR_NOT_FOUND, "no run %s in ledger %s", prefix, l->path);
    else if (rows > 1) err = fail(ERR_USAGE, "run %s is ambiguous:%s", prefix, text_str(&many));
    sqlite3_reset(st);
    text_done(&many);
    return err;
}

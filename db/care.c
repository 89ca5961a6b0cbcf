/* care: looking after a ledger's file, and what people add to runs by hand. */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "db/db.h"
#include "db/query.h"

/* ---- the file ----------------------------------------------------------------------------------------------------------- */

/* Appends what `sql` complains of, a line each, but the word "ok". */
static err_t complaints(struct ledger *l, const char *sql, const char *what, struct text *out)
{
    struct table t;
    TRY(query(l, &t, sql, ""));
    for (int i = 0; i < t.nrows; i++) {
        if (!strcmp(table_at(&t, i, 0)->text, "ok")) continue;
        text_addf(out, "%s:", what);
        for (int c = 0; c < t.ncols; c++) text_addf(out, " %s", table_at(&t, i, c)->text);
        text_add(out, "\n");
    }
    table_done(&t);
    return ERR_OK;
}

err_t ledger_check(struct ledger *l, struct text *out)
{
    static const struct {
        const char *what, *sql;
    } rules[] = {
        {"file", "PRAGMA integrity_check(20)"},
        {"reference", "SELECT \"table\", rowid, parent FROM pragma_foreign_key_check LIMIT 20"},
        {"points of no run",
         "SELECT run, count(*) FROM point WHERE run NOT IN (SELECT n FROM run) GROUP BY run LIMIT 20"},
        {"points of an ended run beside its chunks", "SELECT r.id FROM run r WHERE EXISTS (SELECT 1 FROM chunk WHERE "
                                                     "run = r.n) AND EXISTS (SELECT 1 FROM point WHERE "
                                                     "run = r.n) LIMIT 20"},
        {"chunk of another size than its points",
         "SELECT r.id, c.key, c.first_step FROM chunk c JOIN run r ON r.n = c.run WHERE length(c.data) <> c.points * "
         "CASE WHEN c.stride > 0 THEN 8 ELSE 16 END LIMIT 20"},
        {"curve without summary",
         "SELECT DISTINCT r.id, k.name FROM chunk c JOIN run r ON r.n = c.run JOIN key k ON k.n = c.key WHERE NOT "
         "c.hidden "
         "AND NOT EXISTS (SELECT 1 FROM summary s WHERE s.run = c.run AND s.key = c.key) LIMIT 20"},
        {"run whose id is not of its configuration and replicate",
         "SELECT r.id FROM run r JOIN config c ON c.n = r.config WHERE r.id <> run_id(c.hash, r.replicate) LIMIT 20"},
        {"blob of another hash", "SELECT sha FROM blob WHERE sha <> sha256(data) OR size <> length(data) LIMIT 20"}};
    for (size_t i = 0; i < ARRAY_LEN(rules); i++) TRY(complaints(l, rules[i].sql, rules[i].what, out));
    return ERR_OK;
}

err_t ledger_backup(struct ledger *l, const char *to)
{
    if (file_exists(to)) return fail(ERR_USAGE, "%s is there already: name another file, or remove it", to);
    char *tmp = mem_printf("%s.tmp-%lld", to, (long long)getpid());
    unlink(tmp);
    err_t err = db_run(l, "VACUUM INTO ?", "s", tmp);
    if (!err && rename(tmp, to)) err = fail(ERR_IO, "%s: %s", to, strerror(errno));
    if (err) unlink(tmp);
    mem_free(tmp);
    return err;
}

err_t ledger_vacuum(struct ledger *l)
{
    bool got;
    TRY(lock_take(l, true, &got));
    db_forget(l);
    int rc = sqlite3_exec(l->db, "VACUUM; PRAGMA wal_checkpoint(TRUNCATE)", NULL, NULL, NULL);
    err_t err = rc ? db_fail(l, rc, "vacuum") : ERR_OK;
    lock_drop(l);
    return err;
}

/* ---- by hand -------------------------------------------------------------------------------------------------------------- */

static err_t put_tag(struct ledger *l, const char *id, const char *name, bool on)
{
    int64_t run;
    TRY(run_row(l, id, &run));
    if (on) return db_run(l, "INSERT INTO tag(run, name) VALUES(?,?) ON CONFLICT DO NOTHING", "is", run, name);
    return db_run(l, "DELETE FROM tag WHERE run = ? AND name = ?", "is", run, name);
}

err_t ledger_tag(struct ledger *l, const char *id, const char *name, bool on)
{
    bool own;
    if (!*name || strlen(name) > 64) return fail(ERR_USAGE, "tag \"%s\": 1 to 64 characters", name);
    TRY(tx_enter(l, true, &own));
    return tx_leave(l, own, put_tag(l, id, name, on));
}

static err_t put_note(struct ledger *l, const char *id, const char *text)
{
    int64_t run;
    TRY(run_row(l, id, &run));
    return db_run(l, "INSERT INTO note(run, made_ms, text) VALUES(?,?,?) ON CONFLICT DO NOTHING", "iis", run, now_ms(),
                  text);
}

err_t ledger_note(struct ledger *l, const char *id, const char *text)
{
    bool own;
    TRY(tx_enter(l, true, &own));
    return tx_leave(l, own, put_note(l, id, text));
}

static err_t put_hidden(struct ledger *l, const char *id, bool hidden)
{
    int64_t run;
    TRY(run_row(l, id, &run));
    if (hidden && ledger_run_alive(l, id)) return fail(ERR_USAGE, "run %s is being worked on: stop it first", id);
    return db_run(l, "UPDATE run SET hidden = ? WHERE n = ?", "ni", (int)hidden, run);
}

err_t ledger_hide(struct ledger *l, const char *id, bool hidden)
{
    bool own;
    TRY(tx_enter(l, true, &own));
    return tx_leave(l, own, put_hidden(l, id, hidden));
}

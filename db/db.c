/* db: statements and errors. Every SQLite error ends here and becomes a sentence that says what to do; nothing else in
 * db/ looks at result codes but to tell a row from the end. */
#include "db/db.h"

#include <errno.h>
#include <string.h>

static err_t say_full(struct ledger *l)
{
    return fail(
        ERR_IO,
        "ledger %s: no space left on its disk (or a file-size limit): free some and run again; everything recorded "
        "before is kept",
        l->path);
}

err_t db_fail(struct ledger *l, int rc, const char *what)
{
    int os = errno; /* first: sqlite3_system_errno stays 0 for a write that failed in a commit */
    if (l->db && sqlite3_system_errno(l->db)) os = sqlite3_system_errno(l->db);
    const char *text = l->db ? sqlite3_errmsg(l->db) : sqlite3_errstr(rc);
    if (l->in_tx) l->poisoned = true;
    switch (rc & 0xff) {
    case SQLITE_FULL: return say_full(l);
    case SQLITE_IOERR:
        if (os == ENOSPC || os == EFBIG || os == EDQUOT) return say_full(l);
        return fail(ERR_IO, "ledger %s: %s: %s%s%s", l->path, what, text, os ? ": " : "", os ? strerror(os) : "");
    case SQLITE_CANTOPEN:
    case SQLITE_PERM:
    case SQLITE_READONLY:
        if (os == ENOSPC || os == EFBIG || os == EDQUOT) return say_full(l);
        return fail(
            ERR_IO,
            "ledger %s cannot be written: %s%s%s: SQLite needs to write the file and its directory; name another place "
            "with --ledger",
            l->path, text, os ? ": " : "", os ? strerror(os) : "");
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
        return fail(ERR_IO, "ledger %s: another program has held it for a minute (an open sqlite3 shell?): %s: %s",
                    l->path, what, text);
    case SQLITE_NOTADB: return fail(ERR_FORMAT, "%s is not a ledger: not an SQLite file", l->path);
    case SQLITE_CORRUPT:
        return fail(ERR_FORMAT, "ledger %s is damaged: %s: keep a copy and try `sqlite3 FILE .recover`", l->path, text);
    case SQLITE_NOMEM: return fail(ERR_FAILED, "ledger %s: out of memory", l->path);
    default: return fail(ERR_FAILED, "ledger %s: %s: %s", l->path, what, text);
    }
}

err_t db_stmt(struct ledger *l, const char *sql, sqlite3_stmt **st)
{
    for (int i = 0; i < l->nstmts; i++)
        if (l->stmts[i].sql == sql) {
            *st = l->stmts[i].st;
            sqlite3_clear_bindings(*st);
            return ERR_OK;
        }
    int rc = sqlite3_prepare_v3(l->db, sql, -1, SQLITE_PREPARE_PERSISTENT, st, NULL);
    if (rc) return db_fail(l, rc, "prepare");
    if (l->nstmts == STMT_SLOTS) sqlite3_finalize(l->stmts[--l->nstmts].st);
    l->stmts[l->nstmts].sql = sql;
    l->stmts[l->nstmts++].st = *st;
    return ERR_OK;
}

void db_forget(struct ledger *l)
{
    for (int i = 0; i < l->nstmts; i++) sqlite3_finalize(l->stmts[i].st);
    l->nstmts = 0;
}

void db_bindv(sqlite3_stmt *st, const char *fmt, va_list ap)
{
    for (int i = 1; *fmt; fmt++, i++) {
        switch (*fmt) {
        case 's': sqlite3_bind_text(st, i, va_arg(ap, const char *), -1, SQLITE_TRANSIENT); break;
        case 'i': sqlite3_bind_int64(st, i, va_arg(ap, int64_t)); break;
        case 'n': sqlite3_bind_int(st, i, va_arg(ap, int)); break;
        case 'd': sqlite3_bind_double(st, i, va_arg(ap, double)); break;
        case 'b': {
            const void *p = va_arg(ap, const void *);
            size_t n = va_arg(ap, size_t);
            sqlite3_bind_blob64(st, i, p ? p : "", n, SQLITE_TRANSIENT);
            break;
        }
        }
    }
}

err_t db_run(struct ledger *l, const char *sql, const char *fmt, ...)
{
    sqlite3_stmt *st;
    TRY(db_stmt(l, sql, &st));
    va_list ap;
    va_start(ap, fmt);
    db_bindv(st, fmt, ap);
    va_end(ap);
    int rc;
    do rc = sqlite3_step(st);
    while (rc == SQLITE_ROW);
    err_t err = rc == SQLITE_DONE ? ERR_OK : db_fail(l, rc, "write");
    sqlite3_reset(st);
    return err;
}

static err_t first_row(struct ledger *l, sqlite3_stmt *st, bool *found)
{
    int rc = sqlite3_step(st);
    *found = rc == SQLITE_ROW && sqlite3_column_type(st, 0) != SQLITE_NULL;
    return rc == SQLITE_ROW || rc == SQLITE_DONE ? ERR_OK : db_fail(l, rc, "read");
}

err_t db_int(struct ledger *l, int64_t *out, bool *found, const char *sql, const char *fmt, ...)
{
    sqlite3_stmt *st;
    *found = false;
    TRY(db_stmt(l, sql, &st));
    va_list ap;
    va_start(ap, fmt);
    db_bindv(st, fmt, ap);
    va_end(ap);
    err_t err = first_row(l, st, found);
    if (*found) *out = sqlite3_column_int64(st, 0);
    sqlite3_reset(st);
    return err;
}

err_t db_str(struct ledger *l, char **out, const char *sql, const char *fmt, ...)
{
    sqlite3_stmt *st;
    bool found;
    *out = NULL;
    TRY(db_stmt(l, sql, &st));
    va_list ap;
    va_start(ap, fmt);
    db_bindv(st, fmt, ap);
    va_end(ap);
    err_t err = first_row(l, st, &found);
    if (found) *out = mem_strdup((const char *)sqlite3_column_text(st, 0));
    sqlite3_reset(st);
    return err;
}

static void sql_sha256(sqlite3_context *x, int argc, sqlite3_value **argv)
{
    char sha[SHA256_TEXT];
    const void *data = sqlite3_value_blob(argv[0]);
    (void)argc;
    sha256_text(data ? data : "", (size_t)sqlite3_value_bytes(argv[0]), sha);
    sqlite3_result_text(x, sha, -1, SQLITE_TRANSIENT);
}

static void sql_run_id(sqlite3_context *x, int argc, sqlite3_value **argv)
{
    char id[RUN_ID_TEXT];
    const char *hash = (const char *)sqlite3_value_text(argv[0]);
    (void)argc;
    ledger_run_id(hash ? hash : "", sqlite3_value_int(argv[1]), id);
    sqlite3_result_text(x, id, -1, SQLITE_TRANSIENT);
}

int functions_register(sqlite3 *db)
{
    int flags = SQLITE_UTF8 | SQLITE_DETERMINISTIC;
    int rc = sqlite3_create_function(db, "sha256", 1, flags, NULL, sql_sha256, NULL, NULL);
    return rc ? rc : sqlite3_create_function(db, "run_id", 2, flags, NULL, sql_run_id, NULL, NULL);
}

int64_t now_ms(void)
{
    return host.now_ms();
}

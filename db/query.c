/* query: rows out of the ledger. The user's SQL runs on the same connection as ours, and cannot write for four reasons,
 * each of which would do: an authoriser that allows reading only, query_only, a check of the prepared statement, and
 * one statement a call. */
#include "db/query.h"

#include <ctype.h>
#include <math.h>
#include <string.h>

#include "db/db.h"

void table_done(struct table *t)
{
    mem_free(t->cells);
    arena_done(&t->mem);
    *t = (struct table){0};
}

const struct cell *table_at(const struct table *t, int row, int col)
{
    return &t->cells[(size_t)row * (size_t)t->ncols + (size_t)col];
}

int table_col(const struct table *t, const char *name)
{
    for (int i = 0; i < t->ncols; i++)
        if (!strcmp(t->cols[i], name)) return i;
    return -1;
}

/* Text packed into blocks of the table's arena, which aligns every allocation of its own to 64 bytes. */
struct packer {
    char *p;
    size_t left;
};

static const char *pack(struct packer *k, struct arena *mem, const void *s, size_t n)
{
    enum { BLOCK = 1 << 16 };
    if (n + 1 > BLOCK / 4) {
        char *own = arena_alloc(mem, n + 1);
        memcpy(own, s, n);
        return own;
    }
    if (k->left < n + 1) {
        k->p = arena_alloc(mem, BLOCK);
        k->left = BLOCK;
    }
    char *at = k->p;
    if (n) memcpy(at, s, n);
    at[n] = '\0';
    k->p += n + 1;
    k->left -= n + 1;
    return at;
}

static struct cell read_cell(sqlite3_stmt *st, int i, struct packer *k, struct arena *mem)
{
    struct cell c = {.text = "", .num = NAN};
    switch (sqlite3_column_type(st, i)) {
    case SQLITE_NULL: c.kind = CELL_NULL; return c;
    case SQLITE_INTEGER:
        c.kind = CELL_INT;
        c.num = sqlite3_column_double(st, i);
        break;
    case SQLITE_FLOAT:
        c.kind = CELL_REAL;
        c.num = sqlite3_column_double(st, i);
        break;
    case SQLITE_TEXT: c.kind = CELL_TEXT; break;
    default: c.kind = CELL_BLOB; break;
    }
    const void *s = c.kind == CELL_BLOB ? sqlite3_column_blob(st, i) : sqlite3_column_text(st, i);
    c.bytes = (size_t)sqlite3_column_bytes(st, i);
    c.text = pack(k, mem, s ? s : "", c.bytes);
    return c;
}

/* Steps to the end; returns SQLite's last answer, SQLITE_DONE if all went well. */
static int fetch(sqlite3_stmt *st, struct table *t)
{
    struct packer k = {0};
    size_t cap = 0;
    int rc;
    arena_init(&t->mem);
    t->ncols = sqlite3_column_count(st);
    t->cols = arena_alloc(&t->mem, ((size_t)t->ncols + 1) * sizeof *t->cols);
    for (int i = 0; i < t->ncols; i++) t->cols[i] = arena_strdup(&t->mem, sqlite3_column_name(st, i));
    size_t row = (size_t)t->ncols * sizeof *t->cells;
    while ((rc = sqlite3_step(st)) == SQLITE_ROW) {
        if ((size_t)t->nrows == cap) {
            size_t more = cap ? cap * 2 : 16;
            t->cells = mem_grow(t->cells, cap * row, more * row);
            cap = more;
        }
        struct cell *c = t->cells + (size_t)t->nrows++ * (size_t)t->ncols;
        for (int i = 0; i < t->ncols; i++) c[i] = read_cell(st, i, &k, &t->mem);
    }
    return rc;
}

err_t query(struct ledger *l, struct table *out, const char *sql, const char *fmt, ...)
{
    sqlite3_stmt *st;
    *out = (struct table){0};
    int rc = sqlite3_prepare_v2(l->db, sql, -1, &st, NULL);
    if (rc) return db_fail(l, rc, "query");
    va_list ap;
    va_start(ap, fmt);
    db_bindv(st, fmt, ap);
    va_end(ap);
    rc = fetch(st, out);
    err_t err = rc == SQLITE_DONE ? ERR_OK : db_fail(l, rc, "query");
    sqlite3_finalize(st);
    if (err) table_done(out);
    return err;
}

/* ---- the user's SQL ---------------------------------------------------------------------------------------------- */

/* Pragmas that only look, and those that set something when given a value (allowed without one). */
static const char *const looks[] = {"table_info",      "table_xinfo",     "table_list",       "index_list",
                                    "index_info",      "index_xinfo",     "foreign_key_list", "database_list",
                                    "compile_options", "integrity_check", "quick_check",      "function_list",
                                    "page_count",      "freelist_count",  "foreign_key_check"};
static const char *const states[] = {"user_version", "application_id", "journal_mode",  "page_size",
                                     "encoding",     "data_version",   "schema_version"};

static bool is_one_of(const char *s, const char *const *list, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!sqlite3_stricmp(s, list[i])) return true;
    return false;
}

static int only_reading(void *ctx, int action, const char *a, const char *b, const char *db, const char *by)
{
    (void)ctx;
    (void)db;
    (void)by;
    switch (action) {
    case SQLITE_SELECT:
    case SQLITE_READ:
    case SQLITE_RECURSIVE: return SQLITE_OK;
    case SQLITE_FUNCTION: return b && !sqlite3_stricmp(b, "load_extension") ? SQLITE_DENY : SQLITE_OK;
    case SQLITE_PRAGMA:
        if (is_one_of(a, looks, ARRAY_LEN(looks))) return SQLITE_OK;
        return !b && is_one_of(a, states, ARRAY_LEN(states)) ? SQLITE_OK : SQLITE_DENY;
    default: return SQLITE_DENY;
    }
}

struct deadline {
    int64_t at_ns;
    bool hit;
};

static int past_deadline(void *ctx)
{
    struct deadline *d = ctx;
    d->hit = host.mono_ns() > d->at_ns;
    return d->hit;
}

/* The first thing in s after blanks, comments and empty statements; NULL if there is none. */
static const char *next_statement(const char *s)
{
    for (;;) {
        while (isspace((unsigned char)*s) || *s == ';') s++;
        if (s[0] == '-' && s[1] == '-') s += strcspn(s, "\n");
        else if (s[0] == '/' && s[1] == '*') {
            const char *end = strstr(s + 2, "*/");
            if (!end) return NULL;
            s = end + 2;
        } else return *s ? s : NULL;
    }
}

static err_t user_fail(struct ledger *l, int rc, const struct deadline *d, double seconds)
{
    if (d->hit) return fail(ERR_USAGE, "sql: stopped after %g s: narrow the query", seconds);
    if (rc == SQLITE_AUTH || (rc & 0xff) == SQLITE_READONLY)
        return fail(ERR_USAGE, "sql: only reading is allowed here (%s)", sqlite3_errmsg(l->db));
    int primary = rc & 0xff;
    if (primary == SQLITE_ERROR || primary == SQLITE_MISMATCH || primary == SQLITE_RANGE || primary == SQLITE_TOOBIG)
        return fail(ERR_USAGE, "sql: %s", sqlite3_errmsg(l->db));
    return db_fail(l, rc, "sql");
}

static err_t run_user(struct ledger *l, struct table *out, const char *sql, const struct deadline *d, double seconds)
{
    sqlite3_stmt *st;
    const char *tail;
    err_t err = ERR_OK;
    sql = next_statement(sql);
    if (!sql) return fail(ERR_USAGE, "sql: no statement given");
    int rc = sqlite3_prepare_v2(l->db, sql, -1, &st, &tail);
    if (rc) return user_fail(l, rc, d, seconds);
    if (next_statement(tail))
        err = fail(ERR_USAGE, "sql: one statement at a time, but there is more after it: %.40s", next_statement(tail));
    else if (!sqlite3_stmt_readonly(st) || !sqlite3_column_count(st))
        err = fail(ERR_USAGE, "sql: only reading is allowed here");
    else {
        rc = fetch(st, out);
        if (rc != SQLITE_DONE) err = user_fail(l, rc, d, seconds);
    }
    sqlite3_finalize(st);
    return err;
}

err_t query_user(struct ledger *l, struct table *out, const char *sql, double seconds)
{
    struct deadline d = {0};
    *out = (struct table){0};
    int rc = sqlite3_exec(l->db, "PRAGMA query_only = ON", NULL, NULL, NULL);
    if (rc) return db_fail(l, rc, "sql");
    sqlite3_set_authorizer(l->db, only_reading, NULL);
    if (seconds > 0) {
        d.at_ns = host.mono_ns() + (int64_t)(fmin(seconds, 1e6) * 1e9);
        sqlite3_progress_handler(l->db, 2000, past_deadline, &d);
    }
    err_t err = run_user(l, out, sql, &d, seconds);
    sqlite3_progress_handler(l->db, 0, NULL, NULL);
    sqlite3_set_authorizer(l->db, NULL, NULL);
    rc = sqlite3_exec(l->db, "PRAGMA query_only = OFF", NULL, NULL, NULL);
    if (rc && !err) err = db_fail(l, rc, "sql");
    if (err) table_done(out);
    return err;
}

/* pareto: which rows nobody beats. For two objectives: sort by the first, then walk once with the best second seen so
 * far; a row is on the front if it improves it strictly, or equals a row that did. In SQL it is an eponymous virtual
 * table, pareto(query, dir...). */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "db/db.h"
#include "db/query.h"

struct pair {
    double x, y;
    int row;
};

static int by_x_then_y(const void *a, const void *b)
{
    const struct pair *p = a, *q = b;
    if (p->x != q->x) return p->x < q->x ? -1 : 1;
    return p->y < q->y ? -1 : p->y > q->y;
}

static void front_of_pairs(struct pair *p, int n, bool *on)
{
    qsort(p, (size_t)n, sizeof *p, by_x_then_y);
    double best = 0; /* smallest y of all smaller x */
    for (int i = 0, end; i < n; i = end) {
        double least = p[i].y;
        bool better = i == 0 || least < best;
        for (end = i; end < n && p[end].x == p[i].x; end++) on[p[end].row] = better && p[end].y == least;
        if (better) best = least;
    }
}

static bool dominates(int k, const double *a, const double *b, const bool *minimise)
{
    bool better = false;
    for (int j = 0; j < k; j++) {
        double x = minimise[j] ? a[j] : -a[j], y = minimise[j] ? b[j] : -b[j];
        if (x > y) return false;
        better |= x < y;
    }
    return better;
}

static bool has_nan(int k, const double *row)
{
    for (int j = 0; j < k; j++)
        if (isnan(row[j])) return true;
    return false;
}

static void front_of_many(int n, int k, const double *obj, const bool *minimise, bool *on)
{
    for (int i = 0; i < n; i++) {
        on[i] = !has_nan(k, obj + (size_t)i * (size_t)k);
        for (int j = 0; j < n && on[i]; j++) {
            const double *other = obj + (size_t)j * (size_t)k;
            if (j != i && !has_nan(k, other) && dominates(k, other, obj + (size_t)i * (size_t)k, minimise))
                on[i] = false;
        }
    }
}

void pareto_front(int n, int k, const double *obj, const bool *minimise, bool *on)
{
    if (k > 2) {
        front_of_many(n, k, obj, minimise, on);
        return;
    }
    struct pair *p = mem_array((size_t)n + 1, sizeof *p);
    int used = 0;
    for (int i = 0; i < n; i++) {
        const double *row = obj + (size_t)i * (size_t)k;
        on[i] = false;
        if (has_nan(k, row)) continue;
        p[used++] = (struct pair){minimise[0] ? row[0] : -row[0], k < 2 ? 0 : minimise[1] ? row[1] : -row[1], i};
    }
    front_of_pairs(p, used, on);
    mem_free(p);
}

/* ---- pareto(query, dir...) --------------------------------------------------------------------------------------- */

enum { MAX_OBJ = 4, COL_KEY = 0, COL_OBJ = 1, COL_BY = 1 + MAX_OBJ, COL_QUERY, COL_DIR, NARGS = 1 + MAX_OBJ };

struct front_table {
    sqlite3_vtab base;
    sqlite3 *db;
};

struct front_cursor {
    sqlite3_vtab_cursor base;
    sqlite3_value **key, **by; /* [n] */
    double *obj;               /* [n, k] */
    bool *on;                  /* [n] */
    int n, k, at;
};

static int front_connect(sqlite3 *db, void *aux, int argc, const char *const *argv, sqlite3_vtab **out, char **err)
{
    (void)aux;
    (void)argc;
    (void)argv;
    (void)err;
    int rc = sqlite3_declare_vtab(
        db, "CREATE TABLE t(key, x REAL, y REAL, z REAL, w REAL, \"by\", query HIDDEN, dir1 HIDDEN, "
            "dir2 HIDDEN, dir3 HIDDEN, dir4 HIDDEN)");
    if (rc) return rc;
    struct front_table *t = sqlite3_malloc(sizeof *t);
    if (!t) return SQLITE_NOMEM;
    *t = (struct front_table){.db = db};
    *out = &t->base;
    return SQLITE_OK;
}

static int front_disconnect(sqlite3_vtab *t)
{
    sqlite3_free(t);
    return SQLITE_OK;
}

/* Arguments arrive as equality constraints on the hidden columns; bit i of idxNum: argument i is given. */
static int front_best_index(sqlite3_vtab *t, sqlite3_index_info *info)
{
    int where[NARGS];
    (void)t;
    memset(where, -1, sizeof where);
    for (int i = 0; i < info->nConstraint; i++) {
        int arg = info->aConstraint[i].iColumn - COL_QUERY;
        if (arg < 0 || info->aConstraint[i].op != SQLITE_INDEX_CONSTRAINT_EQ) continue;
        if (!info->aConstraint[i].usable) return SQLITE_CONSTRAINT;
        where[arg] = i;
    }
    for (int arg = 0, next = 1; arg < NARGS; arg++) {
        if (where[arg] < 0) continue;
        info->aConstraintUsage[where[arg]].argvIndex = next++;
        info->aConstraintUsage[where[arg]].omit = 1;
        info->idxNum |= 1 << arg;
    }
    info->estimatedCost = 1e6;
    info->estimatedRows = 100;
    return SQLITE_OK;
}

static int front_open(sqlite3_vtab *t, sqlite3_vtab_cursor **out)
{
    (void)t;
    struct front_cursor *c = mem_alloc(sizeof *c);
    *out = &c->base;
    return SQLITE_OK;
}

static void front_clear(struct front_cursor *c)
{
    for (int i = 0; i < c->n; i++) {
        sqlite3_value_free(c->key[i]);
        sqlite3_value_free(c->by[i]);
    }
    mem_free(c->key);
    mem_free(c->by);
    mem_free(c->obj);
    mem_free(c->on);
    c->key = c->by = NULL;
    c->obj = NULL;
    c->on = NULL;
    c->n = c->at = 0;
}

static int front_close(sqlite3_vtab_cursor *cur)
{
    struct front_cursor *c = (struct front_cursor *)cur;
    front_clear(c);
    mem_free(c);
    return SQLITE_OK;
}

static int say(sqlite3_vtab *t, const char *fmt, const char *what)
{
    sqlite3_free(t->zErrMsg);
    t->zErrMsg = sqlite3_mprintf(fmt, what);
    return SQLITE_ERROR;
}

static void keep_row(struct front_cursor *c, sqlite3_stmt *st, int *cap, bool grouped)
{
    if (c->n == *cap) {
        size_t old = (size_t)*cap, more = old ? old * 2 : 64, k = (size_t)c->k;
        c->key = mem_grow(c->key, old * sizeof *c->key, more * sizeof *c->key);
        c->by = mem_grow(c->by, old * sizeof *c->by, more * sizeof *c->by);
        c->obj = mem_grow(c->obj, old * k * sizeof *c->obj, more * k * sizeof *c->obj);
        *cap = (int)more;
    }
    int i = c->n++;
    c->key[i] = sqlite3_value_dup(sqlite3_column_value(st, 0));
    c->by[i] = grouped ? sqlite3_value_dup(sqlite3_column_value(st, c->k + 1)) : NULL;
    for (int j = 0; j < c->k; j++) {
        int type = sqlite3_column_type(st, j + 1);
        bool number = type == SQLITE_INTEGER || type == SQLITE_FLOAT;
        c->obj[(size_t)i * (size_t)c->k + (size_t)j] = number ? sqlite3_column_double(st, j + 1) : NAN;
    }
}

static const char *group_of(sqlite3_value *v)
{
    const char *s = v ? (const char *)sqlite3_value_text(v) : NULL;
    return s ? s : "";
}

/* The front of each group: gather a group's rows, mark, scatter. */
static void mark(struct front_cursor *c, const bool *minimise)
{
    size_t n = (size_t)c->n, k = (size_t)c->k;
    bool *seen = mem_array(n + 1, sizeof *seen), *on = mem_array(n + 1, sizeof *on);
    int *rows = mem_array(n + 1, sizeof *rows);
    double *obj = mem_array(n * k + 1, sizeof *obj);
    c->on = mem_array(n + 1, sizeof *c->on);
    for (size_t i = 0; i < n; i++) {
        if (seen[i]) continue;
        size_t m = 0;
        for (size_t j = i; j < n; j++) {
            if (seen[j] || strcmp(group_of(c->by[i]), group_of(c->by[j]))) continue;
            seen[j] = true;
            memcpy(obj + m * k, c->obj + j * k, k * sizeof *obj);
            rows[m++] = (int)j;
        }
        pareto_front((int)m, (int)k, obj, minimise, on);
        for (size_t j = 0; j < m; j++) c->on[rows[j]] = on[j];
    }
    mem_free(seen);
    mem_free(on);
    mem_free(rows);
    mem_free(obj);
}

static void skip_off(struct front_cursor *c)
{
    while (c->at < c->n && !c->on[c->at]) c->at++;
}

/* How many objectives the query has, given how many directions were. */
static int objectives(sqlite3_vtab *t, int ncols, int ndirs, int *k, bool *grouped)
{
    *k = ndirs ? ndirs : ncols - 1;
    *grouped = ndirs && ncols == ndirs + 2;
    if (*k < 1 || *k > MAX_OBJ || (ncols != *k + 1 && !*grouped))
        return say(t, "%s",
                   "pareto: the query must give a key, 1 to 4 objectives (as many as directions) and perhaps a group");
    return SQLITE_OK;
}

static int front_filter(sqlite3_vtab_cursor *cur, int given, const char *idx, int argc, sqlite3_value **argv)
{
    struct front_cursor *c = (struct front_cursor *)cur;
    struct front_table *t = (struct front_table *)cur->pVtab;
    bool minimise[MAX_OBJ] = {true, true, true, true}, grouped;
    int ndirs = 0, cap = 0;
    (void)idx;
    front_clear(c);
    if (!(given & 1))
        return say(&t->base, "%s", "pareto: give a query: pareto('SELECT key, x, y FROM ...', 'min', 'min')");
    for (int i = 1; i < argc; i++) {
        const char *d = (const char *)sqlite3_value_text(argv[i]);
        if (!d || (strcmp(d, "min") && strcmp(d, "max")))
            return say(&t->base, "pareto: a direction is 'min' or 'max', not '%s'", d ? d : "NULL");
        minimise[ndirs++] = !strcmp(d, "min");
    }
    const char *sql = (const char *)sqlite3_value_text(argv[0]), *tail;
    sqlite3_stmt *st = NULL;
    int rc = sqlite3_prepare_v2(t->db, sql ? sql : "", -1, &st, &tail);
    if (rc) return say(&t->base, "pareto: %s", sqlite3_errmsg(t->db));
    if (!st || !sqlite3_stmt_readonly(st) || tail[strspn(tail, "; \n\t")])
        rc = say(&t->base, "%s", "pareto: the query must be one SELECT");
    if (!rc) rc = objectives(&t->base, sqlite3_column_count(st), ndirs, &c->k, &grouped);
    if (!rc) {
        while ((rc = sqlite3_step(st)) == SQLITE_ROW) keep_row(c, st, &cap, grouped);
        rc = rc == SQLITE_DONE        ? SQLITE_OK
             : rc == SQLITE_INTERRUPT ? rc
                                      : say(&t->base, "pareto: %s", sqlite3_errmsg(t->db));
    }
    sqlite3_finalize(st);
    if (rc) return rc;
    mark(c, minimise);
    skip_off(c);
    return SQLITE_OK;
}

static int front_next(sqlite3_vtab_cursor *cur)
{
    struct front_cursor *c = (struct front_cursor *)cur;
    c->at++;
    skip_off(c);
    return SQLITE_OK;
}

static int front_eof(sqlite3_vtab_cursor *cur)
{
    struct front_cursor *c = (struct front_cursor *)cur;
    return c->at >= c->n;
}

static int front_column(sqlite3_vtab_cursor *cur, sqlite3_context *ctx, int i)
{
    struct front_cursor *c = (struct front_cursor *)cur;
    if (i == COL_KEY) sqlite3_result_value(ctx, c->key[c->at]);
    else if (i < COL_BY && i <= c->k) sqlite3_result_double(ctx, c->obj[c->at * c->k + i - COL_OBJ]);
    else if (i == COL_BY && c->by[c->at]) sqlite3_result_value(ctx, c->by[c->at]);
    return SQLITE_OK; /* else NULL */
}

static int front_rowid(sqlite3_vtab_cursor *cur, sqlite3_int64 *row)
{
    *row = ((struct front_cursor *)cur)->at;
    return SQLITE_OK;
}

int pareto_register(sqlite3 *db)
{
    static const sqlite3_module module = {
        .xConnect = front_connect, /* no xCreate: it needs no CREATE VIRTUAL TABLE and allows none */
        .xBestIndex = front_best_index,
        .xDisconnect = front_disconnect,
        .xOpen = front_open,
        .xClose = front_close,
        .xFilter = front_filter,
        .xNext = front_next,
        .xEof = front_eof,
        .xColumn = front_column,
        .xRowid = front_rowid};
    return sqlite3_create_module_v2(db, "pareto", &module, NULL, NULL);
}

/* Points, summaries, chunks. A special value (NaN, infinities) is NULL with a code in rows, itself in chunks. */
#include "db/curve.h"

#include <math.h>
#include <string.h>

int special_of(double v)
{
    return isnan(v) ? 1 : isinf(v) ? (v > 0 ? 2 : 3) : 0;
}

static double value_of(int special, double v)
{
    return special == 1 ? NAN : special == 2 ? INFINITY : special == 3 ? -INFINITY : v;
}

/* ---- summaries ---------------------------------------------------------------------------------------------------------- */

struct summary {
    int64_t key, points, specials, last_step, min_step, max_step;
    double last, min, max; /* min > max: nothing finite */
};

static void summary_take(struct summary *s, int64_t step, double v)
{
    s->points++;
    if (s->points == 1 || step >= s->last_step) {
        s->last = v;
        s->last_step = step;
    }
    if (special_of(v)) {
        s->specials++;
        return;
    }
    if (s->min > s->max || v < s->min) {
        s->min = v;
        s->min_step = step;
        if (s->min > s->max) {
            s->max = v;
            s->max_step = step;
        }
    }
    if (v > s->max) {
        s->max = v;
        s->max_step = step;
    }
}

/* A curve of one point needs no minimum and maximum of its own: readers take last. */
static err_t summary_put(struct ledger *l, int64_t run, const struct summary *s)
{
    bool own = s->points > 1 && s->min <= s->max;
    int special = special_of(s->last);
    return db_run(
        l,
        "INSERT INTO summary(run, key, points, specials, last, last_special, last_step, min, min_step, max, max_step) "
        "VALUES(?,?,?,?,?,?,?,?,nullif(?,-1),?,nullif(?,-1)) ON CONFLICT DO UPDATE SET points = excluded.points, "
        "specials = excluded.specials, last = excluded.last, last_special = excluded.last_special, last_step = "
        "excluded.last_step, min = excluded.min, min_step = excluded.min_step, max = excluded.max, max_step = "
        "excluded.max_step",
        "iiiidnididi", run, s->key, s->points, s->specials, special ? NAN : s->last, special, s->last_step,
        own ? s->min : NAN, own ? s->min_step : (int64_t)-1, own ? s->max : NAN, own ? s->max_step : (int64_t)-1);
}

/* What the ledger has of a curve; nothing: an empty one. */
static err_t summary_get(struct ledger *l, int64_t run, int64_t key, struct summary *s)
{
    sqlite3_stmt *st;
    *s = (struct summary){.key = key, .min = 1, .max = -1};
    TRY(db_stmt(l,
                "SELECT points, specials, last, last_special, last_step, min, min_step, max, max_step FROM summary "
                "WHERE run = ? AND key = ?",
                &st));
    sqlite3_bind_int64(st, 1, run);
    sqlite3_bind_int64(st, 2, key);
    int rc = sqlite3_step(st);
    if (rc == SQLITE_ROW) {
        s->points = sqlite3_column_int64(st, 0);
        s->specials = sqlite3_column_int64(st, 1);
        s->last = value_of(sqlite3_column_int(st, 3), sqlite3_column_double(st, 2));
        s->last_step = sqlite3_column_int64(st, 4);
        if (sqlite3_column_type(st, 5) != SQLITE_NULL) {
            s->min = sqlite3_column_double(st, 5);
            s->min_step = sqlite3_column_int64(st, 6);
            s->max = sqlite3_column_double(st, 7);
            s->max_step = sqlite3_column_int64(st, 8);
        } else if (s->points == 1 && !s->specials) {
            s->min = s->max = s->last;
            s->min_step = s->max_step = s->last_step;
        }
    }
    err_t err = rc == SQLITE_ROW || rc == SQLITE_DONE ? ERR_OK : db_fail(l, rc, "read");
    sqlite3_reset(st);
    return err;
}

/* A step that was logged before in this segment replaces its point; that is rare, and then the summary is made from the rows. */
err_t summary_add(struct ledger *l, int64_t run, const struct ledger_point *p, const int64_t *key, int n)
{
    err_t err = ERR_OK;
    bool again = false;
    int used = 0;
    struct summary *all = mem_array((size_t)n + 1, sizeof *all);
    for (int i = 0; i < n; i++) {
        int k = 0;
        while (k < used && all[k].key != key[i]) k++;
        if (k == used) {
            TRYD(summary_get(l, run, key[i], &all[k]));
            used++;
        }
        again |= all[k].points > 0 && p[i].step <= all[k].last_step;
        summary_take(&all[k], p[i].step, p[i].value);
    }
    if (again) err = summary_remake(l, run);
    for (int k = 0; k < used && !again && !err; k++) err = summary_put(l, run, &all[k]);
done:
    mem_free(all);
    return err;
}

/* Visible points of a run, a curve after the other. */
static const char visible_sql[] =
    "SELECT p.key, p.step, p.value, p.special FROM point p WHERE p.run = ?1 "
    "AND NOT EXISTS (SELECT 1 FROM segment s WHERE s.run = ?1 AND s.segment > p.segment AND s.from_step < p.step) "
    "AND NOT EXISTS (SELECT 1 FROM point q WHERE q.run = ?1 AND q.key = p.key AND q.step = p.step AND q.segment > "
    "p.segment) ORDER BY p.key, p.step";

/* Calls take(ctx, key, segment, step, value) for each row of sql, whose columns are key, step, value, special and perhaps segment. */
static err_t each_point(struct ledger *l, const char *sql, int64_t run,
                        err_t (*take)(void *ctx, int64_t key, int64_t segment, int64_t step, double v), void *ctx)
{
    sqlite3_stmt *st;
    TRY(db_stmt(l, sql, &st));
    sqlite3_bind_int64(st, 1, run);
    bool segments = sqlite3_column_count(st) > 4;
    err_t err = ERR_OK;
    int rc = SQLITE_DONE;
    while (!err && (rc = sqlite3_step(st)) == SQLITE_ROW)
        err = take(ctx, sqlite3_column_int64(st, 0), segments ? sqlite3_column_int64(st, 4) : 0,
                   sqlite3_column_int64(st, 1), value_of(sqlite3_column_int(st, 3), sqlite3_column_double(st, 2)));
    if (!err && rc != SQLITE_DONE) err = db_fail(l, rc, "read");
    sqlite3_reset(st);
    return err;
}

struct remaking {
    struct ledger *l;
    int64_t run;
    struct summary s;
};

static err_t remake_take(void *ctx, int64_t key, int64_t segment, int64_t step, double v)
{
    struct remaking *r = ctx;
    (void)segment;
    if (key != r->s.key) {
        if (r->s.points) TRY(summary_put(r->l, r->run, &r->s));
        r->s = (struct summary){.key = key, .min = 1, .max = -1};
    }
    summary_take(&r->s, step, v);
    return ERR_OK;
}

err_t summary_remake(struct ledger *l, int64_t run)
{
    struct remaking r = {.l = l, .run = run, .s = {.key = -1}};
    TRY(db_run(l, "DELETE FROM summary WHERE run = ?", "i", run));
    TRY(each_point(l, visible_sql, run, remake_take, &r));
    return r.s.points ? summary_put(l, run, &r.s) : ERR_OK;
}

/* ---- chunks --------------------------------------------------------------------------------------------------------------- */

struct sealing {
    struct ledger *l;
    int64_t run, key, segment;
    bool hidden;
    int n;
    int64_t *step; /* [CHUNK_POINTS] */
    double *value; /* [CHUNK_POINTS] */
    uint8_t *data; /* [CHUNK_POINTS, 16] */
};

static void store64(uint8_t *to, uint64_t v)
{
    for (int i = 0; i < 8; i++) to[i] = (uint8_t)(v >> (8 * i));
}

static uint64_t load64(const uint8_t *from)
{
    uint64_t v = 0;
    for (int i = 0; i < 8; i++) v |= (uint64_t)from[i] << (8 * i);
    return v;
}

static uint64_t bits_of(double v)
{
    uint64_t b;
    memcpy(&b, &v, sizeof b);
    return b;
}

static err_t chunk_put(struct sealing *s)
{
    if (!s->n) return ERR_OK;
    int64_t stride = s->n > 1 ? s->step[1] - s->step[0] : 1;
    for (int i = 1; i < s->n; i++)
        if (s->step[i] - s->step[i - 1] != stride) stride = 0;
    if (stride < 0) stride = 0;
    size_t bytes = 0;
    for (int i = 0; i < s->n; i++) {
        if (!stride) store64(s->data + bytes, (uint64_t)s->step[i]), bytes += 8;
        store64(s->data + bytes, bits_of(s->value[i])), bytes += 8;
    }
    int n = s->n;
    s->n = 0;
    return db_run(s->l,
                  "INSERT INTO chunk(run, key, hidden, segment, first_step, last_step, stride, points, data) "
                  "VALUES(?,?,?,?,?,?,?,?,?)",
                  "iiniiiinb", s->run, s->key, (int)s->hidden, s->segment, s->step[0], s->step[n - 1], stride, n,
                  s->data, bytes);
}

static err_t seal_take(void *ctx, int64_t key, int64_t segment, int64_t step, double v)
{
    struct sealing *s = ctx;
    if (key != s->key || segment != s->segment || s->n == CHUNK_POINTS) TRY(chunk_put(s));
    s->key = key;
    s->segment = segment;
    s->step[s->n] = step;
    s->value[s->n++] = v;
    return ERR_OK;
}

/* Points that visible_sql does not give. */
static const char hidden_sql[] =
    "SELECT p.key, p.step, p.value, p.special, p.segment FROM point p WHERE p.run = ?1 "
    "AND (EXISTS (SELECT 1 FROM segment s WHERE s.run = ?1 AND s.segment > p.segment AND s.from_step < p.step) "
    "OR EXISTS (SELECT 1 FROM point q WHERE q.run = ?1 AND q.key = p.key AND q.step = p.step AND q.segment > "
    "p.segment)) ORDER BY p.key, p.segment, p.step";

err_t curves_seal(struct ledger *l, int64_t run)
{
    err_t err = ERR_OK;
    struct sealing s = {.l = l, .run = run, .key = -1};
    s.step = mem_array(CHUNK_POINTS, sizeof *s.step);
    s.value = mem_array(CHUNK_POINTS, sizeof *s.value);
    s.data = mem_array(CHUNK_POINTS, 16);
    TRYD(each_point(l, visible_sql, run, seal_take, &s));
    TRYD(chunk_put(&s));
    s.hidden = true;
    TRYD(each_point(l, hidden_sql, run, seal_take, &s));
    TRYD(chunk_put(&s));
    TRYD(db_run(l, "DELETE FROM point WHERE run = ?", "i", run));
done:
    mem_free(s.step);
    mem_free(s.value);
    mem_free(s.data);
    return err;
}

/* ---- curve_points(data, first_step, stride) -------------------------------------------------------------------------------- */

enum { COL_STEP, COL_VALUE, COL_SPECIAL, COL_DATA, COL_FIRST, COL_STRIDE, ARGS = 3 };

struct points_cursor {
    sqlite3_vtab_cursor base;
    uint8_t *data;
    int64_t n, at, first, stride;
};

static int points_connect(sqlite3 *db, void *aux, int argc, const char *const *argv, sqlite3_vtab **out, char **err)
{
    (void)aux, (void)argc, (void)argv, (void)err;
    int rc = sqlite3_declare_vtab(db, "CREATE TABLE t(step INTEGER, value REAL, special INTEGER, data HIDDEN, "
                                      "first_step HIDDEN, stride HIDDEN)");
    if (rc) return rc;
    *out = sqlite3_malloc(sizeof **out);
    if (!*out) return SQLITE_NOMEM;
    memset(*out, 0, sizeof **out);
    return SQLITE_OK;
}

static int points_disconnect(sqlite3_vtab *t)
{
    sqlite3_free(t);
    return SQLITE_OK;
}

static int points_best_index(sqlite3_vtab *t, sqlite3_index_info *info)
{
    (void)t;
    int seen = 0;
    for (int i = 0; i < info->nConstraint; i++) {
        int arg = info->aConstraint[i].iColumn - COL_DATA;
        if (arg < 0 || info->aConstraint[i].op != SQLITE_INDEX_CONSTRAINT_EQ) continue;
        if (!info->aConstraint[i].usable) return SQLITE_CONSTRAINT;
        info->aConstraintUsage[i].argvIndex = arg + 1;
        info->aConstraintUsage[i].omit = 1;
        seen |= 1 << arg;
    }
    if (seen != (1 << ARGS) - 1) return SQLITE_CONSTRAINT;
    info->estimatedCost = CHUNK_POINTS;
    info->estimatedRows = CHUNK_POINTS / 4;
    return SQLITE_OK;
}

static int points_open(sqlite3_vtab *t, sqlite3_vtab_cursor **out)
{
    (void)t;
    struct points_cursor *c = sqlite3_malloc(sizeof *c);
    if (!c) return SQLITE_NOMEM;
    *c = (struct points_cursor){.n = 0};
    *out = &c->base;
    return SQLITE_OK;
}

static int points_close(sqlite3_vtab_cursor *base)
{
    struct points_cursor *c = (struct points_cursor *)base;
    sqlite3_free(c->data);
    sqlite3_free(c);
    return SQLITE_OK;
}

static int points_filter(sqlite3_vtab_cursor *base, int num, const char *str, int argc, sqlite3_value **argv)
{
    struct points_cursor *c = (struct points_cursor *)base;
    (void)num, (void)str, (void)argc;
    int bytes = sqlite3_value_bytes(argv[0]);
    const void *data = sqlite3_value_blob(argv[0]);
    sqlite3_free(c->data);
    c->data = sqlite3_malloc(bytes + 1);
    if (!c->data) return SQLITE_NOMEM;
    if (bytes) memcpy(c->data, data, (size_t)bytes);
    c->first = sqlite3_value_int64(argv[1]);
    c->stride = sqlite3_value_int64(argv[2]);
    c->n = bytes / (c->stride > 0 ? 8 : 16);
    c->at = 0;
    return SQLITE_OK;
}

static int points_next(sqlite3_vtab_cursor *base)
{
    ((struct points_cursor *)base)->at++;
    return SQLITE_OK;
}

static int points_eof(sqlite3_vtab_cursor *base)
{
    const struct points_cursor *c = (const struct points_cursor *)base;
    return c->at >= c->n;
}

static int points_column(sqlite3_vtab_cursor *base, sqlite3_context *x, int col)
{
    const struct points_cursor *c = (const struct points_cursor *)base;
    const uint8_t *at = c->data + c->at * (c->stride > 0 ? 8 : 16);
    double v;
    uint64_t bits = load64(c->stride > 0 ? at : at + 8);
    memcpy(&v, &bits, sizeof v);
    switch (col) {
    case COL_STEP: sqlite3_result_int64(x, c->stride > 0 ? c->first + c->at * c->stride : (int64_t)load64(at)); break;
    case COL_VALUE:
        if (special_of(v)) sqlite3_result_null(x);
        else sqlite3_result_double(x, v);
        break;
    case COL_SPECIAL: sqlite3_result_int(x, special_of(v)); break;
    default: sqlite3_result_null(x);
    }
    return SQLITE_OK;
}

static int points_rowid(sqlite3_vtab_cursor *base, sqlite3_int64 *row)
{
    *row = ((const struct points_cursor *)base)->at;
    return SQLITE_OK;
}

int curve_register(sqlite3 *db)
{
    static const sqlite3_module module = {.xConnect = points_connect,
                                          .xBestIndex = points_best_index,
                                          .xDisconnect = points_disconnect,
                                          .xOpen = points_open,
                                          .xClose = points_close,
                                          .xFilter = points_filter,
                                          .xNext = points_next,
                                          .xEof = points_eof,
                                          .xColumn = points_column,
                                          .xRowid = points_rowid};
    return sqlite3_create_module(db, "curve_points", &module, NULL);
}

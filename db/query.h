/* query: reading a ledger. Rows come as text and numbers; nothing here writes. */
#ifndef DB_QUERY_H
#define DB_QUERY_H

#include "db/ledger.h"

/* One result set held in memory. Cells: text as SQLite prints it, and whether it is NULL or a number. */
struct cell {
    const char *text; /* "" for NULL */
    double num;       /* NaN if not a number */
    enum { CELL_NULL, CELL_INT, CELL_REAL, CELL_TEXT, CELL_BLOB } kind;
    size_t bytes; /* for blobs and text */
};
struct table {
    int ncols, nrows;
    const char **cols;
    struct cell *cells; /* [nrows, ncols] */
    struct arena mem;
};
void table_done(struct table *t);
const struct cell *table_at(const struct table *t, int row, int col);
int table_col(const struct table *t, const char *name); /* -1 if absent */

/* Runs one SELECT with bound parameters: fmt letters s (const char *), i (int64_t), d (double). */
err_t query(struct ledger *l, struct table *out, const char *sql, const char *fmt, ...) MUST_USE;
/* The user's SQL: one statement, read-only by authoriser, with a time limit. ERR_USAGE with SQLite's message. */
err_t query_user(struct ledger *l, struct table *out, const char *sql, double seconds) MUST_USE;

/* Pareto front of rows of k objectives. min[i]: smaller is better. on[i] = true if no other row dominates row i. Rows with NaN
 * are never on the front. O(n log n) for two objectives. Ties: equal rows are both on it. */
void pareto_front(int n, int k, const double *obj, const bool *minimise, bool *on);

/* Also in `ect sql`: SELECT * FROM pareto('SELECT id, x, y FROM ...', 'min', 'min') is provided as a table-valued function whose
 * first column is the row's key. */

#endif

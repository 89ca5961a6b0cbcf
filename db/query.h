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
    struct cell *cells; /* [nrows, ncols], mem_alloc'd; all text is in mem */
    struct arena mem;
};
void table_done(struct table *t);
const struct cell *table_at(const struct table *t, int row, int col);
int table_col(const struct table *t, const char *name); /* -1 if absent */

/* Runs one SELECT with bound parameters: fmt letters s (const char *, NULL is NULL), i (int64_t), d (double). On
 * failure *out is empty; table_done is fine then too. */
err_t query(struct ledger *l, struct table *out, const char *sql, const char *fmt, ...) MUST_USE;
/* The user's SQL: one statement, read-only by authoriser, with a time limit (seconds <= 0: none). ERR_USAGE with
 * SQLite's message. */
err_t query_user(struct ledger *l, struct table *out, const char *sql, double seconds) MUST_USE;

/* Pareto front of n rows of k objectives, obj[n, k]; minimise[k]: smaller is better. on[i] = true if no other row
 * dominates row i (as good in all and better in one). Rows with NaN are never on the front and dominate nothing. Equal
 * rows are both on it. O(n log n) for k <= 2, else O(n^2 k). */
void pareto_front(int n, int k, const double *obj, const bool *minimise, bool *on);

/* The same in SQL, for `ect sql`, as a table-valued function:
 *
 *     SELECT * FROM pareto(query [, dir1 [, dir2 [, dir3 [, dir4]]]])
 *
 * query: text of one SELECT whose columns are a key, then 1 to 4 objectives, then, only if all directions are given,
 * perhaps a group: the front is then taken within each group. dir: 'min' (the default) or 'max'. Result: the rows on
 * the front, in the query's order, with columns key, x, y, z, w (objectives; NULL where there is none), by (group or
 * NULL).
 *
 *     SELECT p.key, p.x, p.y FROM pareto('SELECT run, flops_total, value FROM v_run JOIN v_eval USING (run)
 *                                          WHERE metric = ''fd_random'' AND nfe = 2', 'min', 'min') p ORDER BY p.x;
 */

#endif

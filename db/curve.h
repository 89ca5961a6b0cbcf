/* curve: metric curves at rest, private to db/. While a run trains its points are rows, which many can write and a resume can
 * take back; when it has ended they are sealed into chunks of float64, a quarter of the size. A summary a curve is kept all
 * the while. */
#ifndef DB_CURVE_H
#define DB_CURVE_H

#include "db/db.h"

enum { CHUNK_POINTS = 4096 };

/* All within the caller's transaction; run: row number. */
/* Adds a batch of points, as written to table point, to the summaries of their curves. key[i]: row of point i's key. */
err_t summary_add(struct ledger *l, int64_t run, const struct ledger_point *p, const int64_t *key, int n) MUST_USE;
/* Makes the summaries again from what is visible: after a resume has hidden a tail. */
err_t summary_remake(struct ledger *l, int64_t run) MUST_USE;
/* Moves the points of an ended run into chunks: what is visible as one sequence a curve, abandoned tails apart and hidden. */
err_t curves_seal(struct ledger *l, int64_t run) MUST_USE;
/* The table-valued function curve_points(data, first_step, stride) -> step, value, special. */
int curve_register(sqlite3 *db);

#endif

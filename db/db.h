/* db: private to db/. One connection, its statements, and the rule by which every write happens:
 *
 *     bool own;
 *     TRY(tx_enter(l, true, &own));
 *     return tx_leave(l, own, the_write(l, ...));
 *
 * tx_enter opens a transaction of its own only if ledger_begin has not opened one. An SQLite error inside a group
 * poisons the group: its commit fails and rolls back, since SQLite itself may have rolled back already.
 *
 * fmt letters of bound parameters: s text (NULL is NULL), i int64_t, n int, d double (NaN becomes NULL), b pointer and
 * size_t. */
#ifndef DB_DB_H
#define DB_DB_H

#include <sqlite3.h>
#include <sys/types.h>

#include "db/ledger.h"

enum { STMT_SLOTS = 96, APPLICATION_ID = 0x45435431 };

struct run_lock { /* an flock on RUNDIR/lock that came from this handle; stale once the caller has closed fd */
    char id[RUN_ID_TEXT];
    int fd;
    dev_t dev;
    ino_t ino;
};

struct ledger {
    sqlite3 *db;
    char *path, *lock_path;
    enum ledger_mode mode;
    int lock_fd;
    bool in_tx, poisoned, durable; /* durable: synchronous = FULL is in force */
    dev_t dev;
    ino_t ino; /* of the file that was opened: it may be deleted or replaced under us */
    int wal_frames, next_checkpoint;
    struct {
        const char *sql; /* compared by address: always a literal */
        sqlite3_stmt *st;
    } stmts[STMT_SLOTS];
    int nstmts;
    struct run_lock *locks;
    int nlocks;
};

/* Turns SQLite's answer into our error, with what to do about it. Poisons an open transaction. */
err_t db_fail(struct ledger *l, int rc, const char *what) MUST_USE;
/* Prepared once a connection; reset and unbound. sql must be a literal. */
err_t db_stmt(struct ledger *l, const char *sql, sqlite3_stmt **st) MUST_USE;
void db_forget(struct ledger *l); /* all prepared statements: before a database is detached */
void db_bindv(sqlite3_stmt *st, const char *fmt, va_list ap);
/* Runs a statement to its end. */
err_t db_run(struct ledger *l, const char *sql, const char *fmt, ...) MUST_USE;
/* The first column of the first row; *found false (and *out untouched) if there is none or it is NULL. */
err_t db_int(struct ledger *l, int64_t *out, bool *found, const char *sql, const char *fmt, ...) MUST_USE;
err_t db_str(struct ledger *l, char **out, const char *sql, const char *fmt,
             ...) MUST_USE; /* *out NULL if none; mem_free */

err_t db_configure(struct ledger *l) MUST_USE;
err_t db_migrate(struct ledger *l) MUST_USE; /* under the lock */
err_t db_check_version(struct ledger *l, int64_t *version) MUST_USE;
err_t lock_take(struct ledger *l, bool wait, bool *got) MUST_USE;
void lock_drop(struct ledger *l);

/* durable: on disk when it returns (state changes); false: survives a crash of the program but perhaps not of the
 * machine (points). */
err_t tx_enter(struct ledger *l, bool durable, bool *own) MUST_USE;
err_t tx_leave(struct ledger *l, bool own, err_t err) MUST_USE;

int64_t now_ms(void);
err_t key_row(struct ledger *l, const char *name, int64_t *n) MUST_USE; /* of a curve's name, made if new */
/* Row number of a run by its full id; ERR_NOT_FOUND. */
err_t run_row(struct ledger *l, const char *id, int64_t *n) MUST_USE;
/* The same of a run that this token still owns; else ERR_STALE. */
err_t run_owned(struct ledger *l, const char *id, int64_t token, int64_t *n) MUST_USE;
int special_of(double v);            /* as stored: 0 finite, 1 NaN, 2 inf, 3 -inf */
int functions_register(sqlite3 *db); /* sha256(blob), run_id(config hash, replicate) */
int pareto_register(sqlite3 *db);

#endif

/* ledger: one SQLite file that remembers every run. Writers of one host share it: each write transaction takes an flock
 * beside the file (FILE-lock), then BEGIN IMMEDIATE. Every connection sets wal_autocheckpoint = 0 and NO_CKPT_ON_CLOSE;
 * the WAL is checkpointed only under that lock. On a network file system a shared ledger is refused with advice.
 *
 * Identities. config: SHA-256 of its canonical text. run: (config, replicate); its id is the first 16 hex digits of
 * SHA-256("CONFIGHASH:REPLICATE"), so equal cells of two sweeps, and of two ledgers, are one run. evaluator: SHA-256 of
 * its canonical text. blob: SHA-256 of its bytes.
 *
 * Run states: pending -> running -> done | failed | diverged | interrupted ; blocked (a parent failed or diverged).
 * interrupted, failed, blocked and stale running go back to pending by ledger_run_reset. "running" is true only while
 * somebody holds the flock on RUNDIR/lock: ledger_run_alive.
 *
 * Views (stable, documented where they are made, db/0001.sql; the text is in the file too: SELECT sql FROM
 * sqlite_schema): v_run, v_eval, v_metric, v_param, v_trial, v_sweep, v_evaluator, v_control, v_artifact, v_provenance,
 * v_segment, v_checkpoint.
 *
 * A handle belongs to one thread at a time and does not cross a fork (fork and exec is fine). Writes are durable when
 * they return, except points and progress, which survive the death of the program but perhaps not that of the machine.
 * After a full disk the handle goes on working once there is space. All text is copied; output text is the caller's
 * (mem_free).
 */
#ifndef DB_LEDGER_H
#define DB_LEDGER_H

#include "core/base.h"

enum { RUN_ID_TEXT = 17 };
struct ledger;

enum ledger_mode { LEDGER_READ, LEDGER_WRITE, LEDGER_CREATE };
/* LEDGER_CREATE makes and migrates; LEDGER_WRITE migrates an existing one. ERR_FORMAT: not a ledger; ERR_NEWER: by a
 * newer version; ERR_IO: unwritable place, with advice; ERR_NOT_FOUND: no such file. */
err_t ledger_open(struct ledger **l, const char *path, enum ledger_mode mode) MUST_USE;
void ledger_close(struct ledger *l); /* NULL is fine */
const char *ledger_path(const struct ledger *l);
const char *ledger_library(void); /* SQLite's version, for doctor and provenance */
/* "P.runs/ID" for a ledger P.db. mem_free the result. */
char *ledger_run_dir(const struct ledger *l, const char *run_id);

/* Groups writes: one lock, one transaction. Calls below start one of their own if none is open. Nesting is a broken
 * promise. */
err_t ledger_begin(struct ledger *l) MUST_USE;
err_t ledger_commit(struct ledger *l) MUST_USE;
void ledger_rollback(struct ledger *l);

/* ---- what is written before the first step ----------------------------------------------------------------------- */

err_t ledger_put_blob(struct ledger *l, const void *data, size_t n, const char *mime, char sha[SHA256_TEXT]) MUST_USE;
err_t ledger_get_blob(struct ledger *l, const char *sha, char **data, size_t *n) MUST_USE;

struct ledger_param { /* every setting, defaults too */
    const char *key, *text;
    const char *class; /* "train", "eval", "exec" */
    bool is_default;
};
err_t ledger_put_config(struct ledger *l, const char *hash, const char *canon, const struct ledger_param *params,
                        int n) MUST_USE;

struct ledger_sweep {
    const char *name, *script_sha, *script_name, *sets; /* sets: --set lines that were in force, "key=value\n" */
    int64_t seed;
    const char *declared; /* JSON: tables, pareto, base cell, factors, eval specs, as the script declared them */
};
/* Same name and same script: the same row (updated declarations). The script must be a blob already. Returns its id. */
err_t ledger_put_sweep(struct ledger *l, const struct ledger_sweep *s, int64_t *id) MUST_USE;

struct ledger_run_new {
    const char *config_hash;
    int replicate;
    uint64_t seed;
    const char *parent_run; /* or NULL */
    double flops_nominal, flops_predicted, units_paper;
    int64_t iters;
};
void ledger_run_id(const char *config_hash, int replicate, char id[RUN_ID_TEXT]);
err_t ledger_put_run(struct ledger *l, const struct ledger_run_new *r, char id[RUN_ID_TEXT], bool *created) MUST_USE;

/* A run that was made elsewhere, as it ended: kind "imported", status done, the last value of each of its curves. The
 * configuration must be there. The same (configuration, replicate) again: nothing happens, *created false. */
struct ledger_import {
    const char *config_hash;
    int replicate;
    uint64_t seed;
    int64_t step, iters, started_ms; /* started_ms 0: unknown */
    double flops_executed, seconds;
    const char *const *keys;
    const double *values; /* NaN and infinities are stored as such */
    int nvalues;
};
err_t ledger_import_run(struct ledger *l, const struct ledger_import *r, char id[RUN_ID_TEXT], bool *created) MUST_USE;

/* Brings the records of another ledger (same schema) into this one; rules in db/merge.c. Idempotent and commutative; one transaction.
 * Files of runs (P.runs/) are not touched. */
struct ledger_merge {
    int64_t runs, taken;                   /* runs of theirs; of these new here, or further there than here */
    int64_t run_conflicts, eval_conflicts; /* done in both with other results; another value under one key */
};
err_t ledger_merge(struct ledger *l, const char *path, struct ledger_merge *m) MUST_USE;

struct ledger_trial {
    int64_t sweep;
    int ordinal;
    const char *cell;    /* label: "base", "mapping=const", "pretrain" */
    const char *factors; /* JSON object: factor -> label of this cell ({"mapping":"const"}) */
    int replicate;
    const char *run_id;
};
err_t ledger_put_trial(struct ledger *l,
                       const struct ledger_trial *t) MUST_USE; /* upsert by (sweep, cell, replicate) */
/* Trials of a sweep that are no longer in the script are hidden (kept): those from ordinal count on; others are hidden
 * when a trial of another cell takes their ordinal. Putting a trial again shows it again. */
err_t ledger_hide_trials_after(struct ledger *l, int64_t sweep, int count) MUST_USE;

/* ---- a run's life ------------------------------------------------------------------------------------------------ */

enum run_status { RUN_PENDING, RUN_RUNNING, RUN_DONE, RUN_FAILED, RUN_DIVERGED, RUN_INTERRUPTED, RUN_BLOCKED };
const char *run_status_name(enum run_status s);

struct
    ledger_run { /* a row, for the scheduler and worker. Text lives as long as the struct; ledger_run_done frees it */
    char id[RUN_ID_TEXT], config_hash[SHA256_TEXT], parent_run[RUN_ID_TEXT];
    int replicate, attempt, threads;
    uint64_t seed;
    enum run_status status;
    int64_t token, step, iters;
    char *reason, *device;
};
err_t ledger_get_run(struct ledger *l, const char *id, struct ledger_run *out) MUST_USE;
void ledger_run_done(struct ledger_run *r);
/* Full id from a unique prefix, or "@-1" style: the newest. ERR_NOT_FOUND, ERR_USAGE if ambiguous (lists candidates).
 */
err_t ledger_resolve_run(struct ledger *l, const char *prefix, char id[RUN_ID_TEXT]) MUST_USE;
err_t ledger_get_config(struct ledger *l, const char *hash, char **canon) MUST_USE; /* mem_free */
err_t ledger_get_param(struct ledger *l, const char *config_hash, const char *key, char **text) MUST_USE;

/* Holds the flock on RUNDIR/lock for the life of the run; *fd must stay open (it is close-on-exec). ERR_STALE if
 * another process holds it. Lock first, then claim, with the same handle. */
err_t ledger_run_lock(struct ledger *l, const char *id, int *fd) MUST_USE;
bool ledger_run_alive(struct ledger *l, const char *id);
/* Takes the run: pending/interrupted/failed/stale running -> running with a new fencing token. *token = 0 if somebody
 * else has it, or if it is done, diverged or blocked. ERR_FAILED without ledger_run_lock. */
struct ledger_claim {
    const char *device;
    int threads; /* kept from the first attempt: the row's value wins and is returned */
    const char *host, *boot_id;
    int64_t pid;
};
err_t ledger_claim(struct ledger *l, const char *id, struct ledger_claim *c, int64_t *token) MUST_USE;
/* A new attempt of this process: from_step is the checkpoint it starts from. Metric points after from_step of earlier
 * segments are hidden, not dropped. */
err_t ledger_segment(struct ledger *l, const char *id, int64_t token, int64_t from_step) MUST_USE;
/* How far the attempt in progress is, for `ls` and in case it vanishes: then this much stays counted. */
struct ledger_progress {
    int64_t step, nimg;
    double flops_executed, seconds; /* of this segment so far */
    double images_per_s;
};
err_t ledger_progress(struct ledger *l, const char *id, int64_t token, const struct ledger_progress *p) MUST_USE;
/* git.revision, binary.sha, cpu, ...: kept per attempt */
err_t ledger_provenance(struct ledger *l, const char *id, const char *key, const char *value) MUST_USE;
/* file: relative to the run's directory. The same file again replaces its row. */
err_t ledger_checkpoint_note(struct ledger *l, const char *id, int64_t token, int64_t step, const char *file,
                             const char *sha, bool keep) MUST_USE;

struct ledger_outcome {
    enum run_status status;
    const char *reason; /* error text, "" if none */
    int64_t step, nimg;
    double flops_executed; /* of this segment: added to the run's */
    double seconds;        /* likewise */
    double images_per_s;
    int exit_code, signal;
};
/* ERR_STALE if token is not the run's current one: nothing is changed. */
err_t ledger_finish(struct ledger *l, const char *id, int64_t token, const struct ledger_outcome *o) MUST_USE;
/* The scheduler's word on a worker that vanished: if it is "running" but nobody holds its lock, marks it failed (signal
 * is a crash: SIGSEGV, SIGABRT, ...) or interrupted (any other, or 0 for unknown). */
err_t ledger_reap(struct ledger *l, const char *id, int signal, bool *was_stale) MUST_USE;
/* -> pending. ERR_USAGE for done and diverged (outcomes), ERR_STALE for one that is alive. */
err_t ledger_run_reset(struct ledger *l, const char *id) MUST_USE;
/* Pending and interrupted descendants, of any depth, become blocked. */
err_t ledger_block_children(struct ledger *l, const char *parent, const char *reason) MUST_USE;

/* ---- numbers ----------------------------------------------------------------------------------------------------- */

struct ledger_point {
    const char *key;
    int64_t step;
    double value; /* NaN and inf are stored as such (special) */
};
/* One transaction, after ledger_segment. The same (key, step) again in a segment: the last value stays. */
err_t ledger_points(struct ledger *l, const char *id, int64_t token, const struct ledger_point *p, int n) MUST_USE;

struct ledger_eval {
    const char *run_id, *weights; /* "raw" or EMA name */
    int64_t step;
    const char *evaluator_sha, *evaluator_canon;
    const char *metric, *sampler;
    int nfe;
    int64_t samples;
    uint64_t seed;
    double value, seconds, flops;
};
err_t ledger_put_eval(struct ledger *l, const struct ledger_eval *e) MUST_USE; /* the same key again: same row */
bool ledger_has_eval(struct ledger *l, const char *run_id, int64_t step, const char *weights,
                     const char *evaluator_sha);
/* Controls and data-set level values (real half against half, Gaussian): keyed by (dataset sha, name, evaluator). */
err_t ledger_put_control(struct ledger *l, const char *dataset, const char *name, const struct ledger_eval *e) MUST_USE;
bool ledger_has_control(struct ledger *l, const char *dataset, const char *name, const char *evaluator_sha);
/* A picture or other small artefact of a run, by role ("grid:data", "grid:nfe1"). */
err_t ledger_put_artifact(struct ledger *l, const char *run_id, const char *role, const char *blob_sha) MUST_USE;

/* ---- care -------------------------------------------------------------------------------------------------------- */

/* Adds a line for everything that is not as it must be, in SQLite's eyes (integrity_check) and in ours; nothing: fine. */
err_t ledger_check(struct ledger *l, struct text *out) MUST_USE;
/* A complete, compact copy, taken while others write. ERR_USAGE: the file is there. */
err_t ledger_backup(struct ledger *l, const char *to) MUST_USE;
err_t ledger_vacuum(struct ledger *l) MUST_USE; /* gives free pages back to the file system */
err_t ledger_tag(struct ledger *l, const char *id, const char *name, bool on) MUST_USE;
err_t ledger_note(struct ledger *l, const char *id, const char *text) MUST_USE;
/* A hidden run is not in v_run, and so in no list, table or front; its rows and files stay. ERR_USAGE: it is alive. */
err_t ledger_hide(struct ledger *l, const char *id, bool hidden) MUST_USE;

#endif

/* life: how a run changes its state. Two things keep two processes from training one run. The flock on RUNDIR/lock:
 * whoever holds it is alive, whatever the table says, and the kernel drops it at death. The fencing token: every claim
 * takes a new one, and whoever writes with an old one is refused, so a process that was believed dead cannot overwrite
 * its successor.
 *
 *   pending, interrupted, failed, running-but-dead --claim--> running
 *   running --finish--> done | failed | diverged | interrupted
 *   running-but-dead --reap--> interrupted (killed from outside) | failed (crashed)
 *   pending, interrupted --block_children--> blocked
 *   interrupted, failed, blocked, running-but-dead --reset--> pending
 */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "db/curve.h"
#include "db/db.h"

/* ---- who lives --------------------------------------------------------------------------------------------------- */

static char *lock_name(const struct ledger *l, const char *id)
{
    char *dir = ledger_run_dir(l, id), *name = mem_printf("%s/lock", dir);
    mem_free(dir);
    return name;
}

static void remember_lock(struct ledger *l, const char *id, int fd)
{
    struct stat st;
    if (fstat(fd, &st)) return;
    l->locks = mem_grow(l->locks, (size_t)l->nlocks * sizeof *l->locks, ((size_t)l->nlocks + 1) * sizeof *l->locks);
    struct run_lock *k = &l->locks[l->nlocks++];
    snprintf(k->id, sizeof k->id, "%s", id);
    k->fd = fd;
    k->dev = st.st_dev;
    k->ino = st.st_ino;
}

static bool holds_lock(const struct ledger *l, const char *id)
{
    struct stat st;
    for (int i = 0; i < l->nlocks; i++) {
        const struct run_lock *k = &l->locks[i];
        if (!strcmp(k->id, id) && !fstat(k->fd, &st) && st.st_dev == k->dev && st.st_ino == k->ino) return true;
    }
    return false;
}

err_t ledger_run_lock(struct ledger *l, const char *id, int *fd)
{
    char *dir = ledger_run_dir(l, id), *name = lock_name(l, id), who[64] = "";
    err_t err = ERR_OK;
    *fd = -1;
    TRYD(dir_make(dir));
    *fd = open(name, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (*fd < 0) {
        err = fail(ERR_IO, "%s: %s", name, strerror(errno));
        goto done;
    }
    /* ledger_run_alive of another process holds it for a moment: insist a little */
    for (int tries = 0; flock(*fd, LOCK_EX | LOCK_NB); tries++) {
        if (errno != EWOULDBLOCK && errno != EINTR) {
            err = fail(ERR_IO, "lock %s: %s", name, strerror(errno));
            goto done;
        }
        if (tries == 20) {
            ssize_t n = pread(*fd, who, sizeof who - 1, 0);
            who[n > 0 ? strcspn(who, "\n") : 0] = '\0';
            err = fail(ERR_STALE, "run %s is being worked on by another process%s%s", id, *who ? ": pid " : "", who);
            goto done;
        }
        nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
    }
    /* for people who look; nothing reads it but the message above */
    int n = snprintf(who, sizeof who, "%ld\n", (long)getpid());
    if (ftruncate(*fd, 0) || pwrite(*fd, who, (size_t)n, 0) != n) log_warn("%s: %s", name, strerror(errno));
    remember_lock(l, id, *fd);
done:
    if (err && *fd >= 0) {
        close(*fd);
        *fd = -1;
    }
    mem_free(dir);
    mem_free(name);
    return err;
}

bool ledger_run_alive(struct ledger *l, const char *id)
{
    char *name = lock_name(l, id);
    int fd = open(name, O_RDONLY | O_CLOEXEC);
    bool alive = fd >= 0 && flock(fd, LOCK_SH | LOCK_NB) && errno == EWOULDBLOCK;
    if (fd >= 0) close(fd);
    mem_free(name);
    return alive;
}

/* ---- claim ------------------------------------------------------------------------------------------------------- */

static err_t claim(struct ledger *l, const char *id, struct ledger_claim *c, int64_t *token)
{
    int64_t row, threads = 0;
    bool found;
    TRY(run_row(l, id, &row));
    /* "running" can only be a dead one: we hold its lock */
    TRY(db_int(
        l, token, &found,
        "UPDATE run SET status = 'running', reason = '', token = token + 1, attempt = attempt + 1, device = ?2, host = "
        "?4, "
        "boot_id = ?5, pid = ?6, threads = CASE WHEN threads > 0 THEN threads ELSE ?3 END, started_ms = "
        "ifnull(started_ms, ?7), "
        "ended_ms = NULL, exit_code = NULL, signal = NULL, flops_closed = flops_closed + flops_live, flops_live = 0, "
        "seconds_closed = seconds_closed + seconds_live, seconds_live = 0 "
        "WHERE n = ?1 AND status IN ('pending', 'interrupted', 'failed', 'running') RETURNING token",
        "isnssii", row, c->device ? c->device : "", c->threads, c->host ? c->host : "", c->boot_id ? c->boot_id : "",
        c->pid, now_ms()));
    if (!found) return ERR_OK;
    TRY(db_run(
        l,
        "UPDATE run SET flops_above = (WITH RECURSIVE up(n) AS (SELECT run.parent UNION SELECT q.parent FROM up "
        "JOIN run q ON q.n = up.n) SELECT total(q.flops_closed + q.flops_live) FROM up JOIN run q ON q.n = up.n) "
        "WHERE n = ? AND parent IS NOT NULL",
        "i", row));
    TRY(db_int(l, &threads, &found, "SELECT threads FROM run WHERE n = ?", "i", row));
    c->threads = (int)threads;
    return ERR_OK;
}

err_t ledger_claim(struct ledger *l, const char *id, struct ledger_claim *c, int64_t *token)
{
    bool own;
    *token = 0;
    if (!holds_lock(l, id)) {
        if (ledger_run_alive(l, id)) return ERR_OK;
        return fail(ERR_FAILED, "claim of run %s without ledger_run_lock", id);
    }
    TRY(tx_enter(l, true, &own));
    err_t err = tx_leave(l, own, claim(l, id, c, token));
    if (err) *token = 0;
    return err;
}

err_t run_owned(struct ledger *l, const char *id, int64_t token, int64_t *row)
{
    int64_t yes;
    bool found;
    TRY(run_row(l, id, row));
    TRY(db_int(l, &yes, &found, "SELECT 1 FROM run WHERE n = ? AND token = ? AND status = 'running'", "ii", *row,
               token));
    return found ? ERR_OK
                 : fail(ERR_STALE,
                        "run %s was taken over or ended by another process: what this one did is not recorded", id);
}

static err_t put_segment(struct ledger *l, const char *id, int64_t token, int64_t from_step)
{
    int64_t row;
    TRY(run_owned(l, id, token, &row));
    TRY(db_run(l,
               "INSERT INTO segment(run, segment, from_step, token, started_ms) "
               "VALUES(?1, (SELECT ifnull(max(segment), 0) + 1 FROM segment WHERE run = ?1), ?2, ?3, ?4)",
               "iiii", row, from_step, token, now_ms()));
    TRY(db_run(l, "UPDATE run SET step = ? WHERE n = ?", "ii", from_step, row));
    return summary_remake(l, row);
}

err_t ledger_segment(struct ledger *l, const char *id, int64_t token, int64_t from_step)
{
    bool own;
    TRY(tx_enter(l, true, &own));
    return tx_leave(l, own, put_segment(l, id, token, from_step));
}

static err_t put_progress(struct ledger *l, const char *id, int64_t token, const struct ledger_progress *p)
{
    int64_t row;
    TRY(run_owned(l, id, token, &row));
    return db_run(l,
                  "UPDATE run SET step = ?, nimg = ?, flops_live = ?, seconds_live = ?, images_per_s = ? WHERE n = ?",
                  "iidddi", p->step, p->nimg, p->flops_executed, p->seconds, p->images_per_s, row);
}

err_t ledger_progress(struct ledger *l, const char *id, int64_t token, const struct ledger_progress *p)
{
    bool own;
    TRY(tx_enter(l, false, &own));
    return tx_leave(l, own, put_progress(l, id, token, p));
}

/* ---- what a run leaves behind ------------------------------------------------------------------------------------ */

static err_t put_provenance(struct ledger *l, const char *id, const char *key, const char *value)
{
    int64_t row;
    TRY(run_row(l, id, &row));
    return db_run(
        l,
        "INSERT INTO provenance(run, attempt, key, value) VALUES(?1, (SELECT attempt FROM run WHERE n = ?1), ?2, ?3) "
        "ON CONFLICT DO UPDATE SET value = excluded.value",
        "iss", row, key, value);
}

err_t ledger_provenance(struct ledger *l, const char *id, const char *key, const char *value)
{
    bool own;
    TRY(tx_enter(l, true, &own));
    return tx_leave(l, own, put_provenance(l, id, key, value));
}

static err_t put_checkpoint(struct ledger *l, const char *id, int64_t token, int64_t step, const char *file,
                            const char *sha, bool keep)
{
    int64_t row;
    TRY(run_owned(l, id, token, &row));
    TRY(db_run(
        l,
        "INSERT INTO checkpoint(run, file, step, sha, keep, created_ms) VALUES(?,?,?,?,?,?) ON CONFLICT DO UPDATE SET "
        "step = excluded.step, sha = excluded.sha, keep = excluded.keep, created_ms = excluded.created_ms",
        "isisni", row, file, step, sha, (int)keep, now_ms()));
    return db_run(l, "UPDATE run SET step = max(step, ?) WHERE n = ?", "ii", step, row);
}

err_t ledger_checkpoint_note(struct ledger *l, const char *id, int64_t token, int64_t step, const char *file,
                             const char *sha, bool keep)
{
    bool own;
    TRY(tx_enter(l, true, &own));
    return tx_leave(l, own, put_checkpoint(l, id, token, step, file, sha, keep));
}

/* ---- ends -------------------------------------------------------------------------------------------------------- */

static err_t finish(struct ledger *l, const char *id, int64_t token, const struct ledger_outcome *o)
{
    int64_t row;
    TRY(run_owned(l, id, token, &row));
    if (o->status == RUN_DONE || o->status == RUN_DIVERGED) TRY(curves_seal(l, row)); /* nothing will be added */
    return db_run(
        l,
        "UPDATE run SET status = ?2, reason = ?3, step = ?4, nimg = ?5, flops_closed = flops_closed + ?6, flops_live = "
        "0, "
        "seconds_closed = seconds_closed + ?7, seconds_live = 0, images_per_s = ?8, exit_code = ?9, signal = ?10, "
        "ended_ms = ?11 WHERE n = ?1",
        "issiidddnni", row, run_status_name(o->status), o->reason ? o->reason : "", o->step, o->nimg, o->flops_executed,
        o->seconds, o->images_per_s, o->exit_code, o->signal, now_ms());
}

err_t ledger_finish(struct ledger *l, const char *id, int64_t token, const struct ledger_outcome *o)
{
    bool own;
    assert(o->status == RUN_DONE || o->status == RUN_FAILED || o->status == RUN_DIVERGED ||
           o->status == RUN_INTERRUPTED);
    TRY(tx_enter(l, true, &own));
    return tx_leave(l, own, finish(l, id, token, o));
}

static bool is_crash(int sig)
{
    return sig == SIGSEGV || sig == SIGBUS || sig == SIGFPE || sig == SIGILL || sig == SIGABRT || sig == SIGTRAP ||
           sig == SIGSYS;
}

/* What the vanished process last reported (ledger_progress) stays counted. */
static err_t close_vanished(struct ledger *l, int64_t row, enum run_status status, const char *reason, int sig)
{
    return db_run(l,
                  "UPDATE run SET status = ?2, reason = ?3, signal = ?4, ended_ms = ?5, flops_closed = flops_closed + "
                  "flops_live, "
                  "flops_live = 0, seconds_closed = seconds_closed + seconds_live, seconds_live = 0 WHERE n = ?1",
                  "issni", row, run_status_name(status), reason, sig, now_ms());
}

static err_t reap(struct ledger *l, const char *id, int sig, bool *was_stale)
{
    int64_t row, yes;
    char reason[96];
    TRY(run_row(l, id, &row));
    TRY(db_int(l, &yes, was_stale, "SELECT 1 FROM run WHERE n = ? AND status = 'running'", "i", row));
    if (!*was_stale || (*was_stale = !ledger_run_alive(l, id)) == false) return ERR_OK;
    if (sig) snprintf(reason, sizeof reason, "its process was ended by signal %d (%s)", sig, strsignal(sig));
    else snprintf(reason, sizeof reason, "its process vanished");
    return close_vanished(l, row, is_crash(sig) ? RUN_FAILED : RUN_INTERRUPTED, reason, sig);
}

err_t ledger_reap(struct ledger *l, const char *id, int sig, bool *was_stale)
{
    bool own;
    *was_stale = false;
    TRY(tx_enter(l, true, &own));
    return tx_leave(l, own, reap(l, id, sig, was_stale));
}

static err_t reset(struct ledger *l, const char *id)
{
    struct ledger_run r;
    err_t err = ledger_get_run(l, id, &r);
    int64_t row;
    if (!err) err = run_row(l, id, &row);
    if (err || r.status == RUN_PENDING) goto done;
    if (r.status == RUN_DONE || r.status == RUN_DIVERGED)
        err = fail(ERR_USAGE, "run %s is %s: that is its outcome", id, run_status_name(r.status));
    else if (r.status == RUN_RUNNING && ledger_run_alive(l, id))
        err = fail(ERR_STALE, "run %s is being worked on by another process", id);
    else err = close_vanished(l, row, RUN_PENDING, "", 0);
done:
    ledger_run_done(&r);
    return err;
}

err_t ledger_run_reset(struct ledger *l, const char *id)
{
    bool own;
    TRY(tx_enter(l, true, &own));
    return tx_leave(l, own, reset(l, id));
}

static err_t block_children(struct ledger *l, const char *parent, const char *reason)
{
    int64_t row;
    TRY(run_row(l, parent, &row));
    return db_run(
        l,
        "WITH RECURSIVE down(n) AS (SELECT n FROM run WHERE parent = ?1 UNION SELECT r.n FROM down JOIN run r ON "
        "r.parent = down.n) "
        "UPDATE run SET status = 'blocked', reason = ?2 WHERE n IN down AND status IN ('pending', 'interrupted')",
        "is", row, reason ? reason : "");
}

err_t ledger_block_children(struct ledger *l, const char *parent, const char *reason)
{
    bool own;
    TRY(tx_enter(l, true, &own));
    return tx_leave(l, own, block_children(l, parent, reason));
}

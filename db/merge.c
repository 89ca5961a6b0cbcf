/* merge: the rows of another ledger into this one, each under its natural name: a run by its id, a setting by its text, a blob by its
 * hash. Row numbers differ from file to file, so every table is led by a map from theirs to ours. What both have is decided by
 * rules that do not ask which of the two is "this" one: merging A into B and B into A leaves the same records, and merging twice
 * changes nothing.
 *
 *   run           the further one: done, diverged, failed, interrupted, running, blocked, pending; then more steps, more attempts, more FLOPs;
 *                 its curves, segments, checkpoints and provenance come with it as a whole
 *   evaluation    the one made first; another value under the same key is a conflict and is told
 *   configuration its eval and exec settings as first declared
 *   sweep         as last declared; a trial is shown if either shows it
 *   tags, notes   all of both; hidden if either hides */
#include <string.h>

#include "db/db.h"

#define RANK(r)                                                                                                        \
    "(CASE " r ".status WHEN 'done' THEN 6 WHEN 'diverged' THEN 5 WHEN 'failed' THEN 4 WHEN 'interrupted' THEN 3 "     \
    "WHEN 'running' THEN 2 WHEN 'blocked' THEN 1 ELSE 0 END, " r ".step, " r ".attempt, " r ".flops_closed, " r        \
    ".seconds_closed, ifnull(" r ".ended_ms, 0), " r ".token)"

#define RUN_COLUMNS                                                                                                    \
    "status, reason, token, attempt, threads, device, host, boot_id, pid, step, iters, nimg, flops_nominal, "          \
    "flops_predicted, units_paper, flops_closed, flops_live, seconds_closed, seconds_live, images_per_s, exit_code, "  \
    "signal, started_ms, ended_ms, flops_above, kind, device_bytes"

static const char *const steps[] = {
    /* names that stand alone */
    "INSERT INTO blob SELECT * FROM src.blob WHERE true ON CONFLICT DO NOTHING",
    "INSERT INTO key(name) SELECT name FROM src.key WHERE true ON CONFLICT DO NOTHING",
    "INSERT INTO evaluator(sha, canon) SELECT sha, canon FROM src.evaluator WHERE true ON CONFLICT DO NOTHING",
    "INSERT INTO setting(key, text, num, class, is_default) SELECT key, text, num, class, is_default FROM src.setting "
    "WHERE true ON CONFLICT DO NOTHING",
    "INSERT INTO base(sha) SELECT sha FROM src.base WHERE true ON CONFLICT DO NOTHING",
    "CREATE TEMP TABLE m_key AS SELECT s.n AS theirs, d.n AS ours FROM src.key s JOIN key d USING (name)",
    "CREATE TEMP TABLE m_evaluator AS SELECT s.n AS theirs, d.n AS ours FROM src.evaluator s JOIN evaluator d USING "
    "(sha)",
    "CREATE TEMP TABLE m_setting AS SELECT s.n AS theirs, d.n AS ours FROM src.setting s JOIN setting d USING (key, "
    "text, "
    "class, is_default)",
    "CREATE TEMP TABLE m_base AS SELECT s.n AS theirs, d.n AS ours FROM src.base s JOIN base d USING (sha)",
    "INSERT INTO base_setting SELECT b.ours, t.ours FROM src.base_setting s JOIN m_base b ON b.theirs = s.base "
    "JOIN m_setting t ON t.theirs = s.setting JOIN setting x ON x.n = t.ours WHERE NOT EXISTS (SELECT 1 FROM "
    "base_setting y JOIN setting z ON z.n = y.setting WHERE y.base = b.ours AND z.key = x.key)",
    /* configurations: those that they declared first come with their settings */
    "CREATE TEMP TABLE take_config AS SELECT s.n AS theirs, s.hash FROM src.config s LEFT JOIN config d USING (hash) "
    "WHERE d.n IS NULL OR s.created_ms < d.created_ms",
    "INSERT INTO config(hash, canon, created_ms, base) SELECT s.hash, s.canon, s.created_ms, b.ours FROM take_config t "
    "JOIN src.config s ON s.n = t.theirs LEFT JOIN m_base b ON b.theirs = s.base WHERE true "
    "ON CONFLICT DO UPDATE SET created_ms = excluded.created_ms, base = excluded.base",
    "DELETE FROM config_setting WHERE config IN (SELECT d.n FROM take_config t JOIN config d USING (hash))",
    "INSERT INTO config_setting SELECT d.n, m.ours FROM take_config t JOIN config d USING (hash) JOIN "
    "src.config_setting s "
    "ON s.config = t.theirs JOIN m_setting m ON m.theirs = s.setting",
    "CREATE TEMP TABLE m_config AS SELECT s.n AS theirs, d.n AS ours FROM src.config s JOIN config d USING (hash)",
    /* runs: new ones, and those where they came further */
    "CREATE TEMP TABLE take_run AS SELECT s.n AS theirs, s.id FROM src.run s LEFT JOIN run d USING (id) "
    "WHERE d.n IS NULL OR " RANK("s") " > " RANK("d"),
    "INSERT INTO run(id, config, replicate, seed, created_ms) SELECT s.id, c.ours, s.replicate, s.seed, s.created_ms "
    "FROM take_run t JOIN src.run s ON s.n = t.theirs JOIN m_config c ON c.theirs = s.config ORDER BY s.n "
    "ON CONFLICT DO NOTHING",
    "UPDATE run SET (" RUN_COLUMNS ") = (SELECT " RUN_COLUMNS " FROM src.run s WHERE s.id = run.id) "
    "WHERE id IN (SELECT id FROM take_run)",
    "UPDATE run SET created_ms = min(created_ms, (SELECT s.created_ms FROM src.run s WHERE s.id = run.id)), "
    "hidden = max(hidden, (SELECT s.hidden FROM src.run s WHERE s.id = run.id)), "
    "parent = ifnull(parent, (SELECT p.n FROM src.run s JOIN src.run q ON q.n = s.parent JOIN run p ON p.id = q.id "
    "WHERE s.id = run.id)) WHERE id IN (SELECT id FROM src.run)",
    "CREATE TEMP TABLE m_run AS SELECT s.n AS theirs, d.n AS ours FROM src.run s JOIN run d USING (id)",
    "CREATE TEMP TABLE m_take AS SELECT t.theirs, d.n AS ours FROM take_run t JOIN run d USING (id)",
    "DELETE FROM segment WHERE run IN (SELECT ours FROM m_take)",
    "DELETE FROM point WHERE run IN (SELECT ours FROM m_take)",
    "DELETE FROM chunk WHERE run IN (SELECT ours FROM m_take)",
    "DELETE FROM summary WHERE run IN (SELECT ours FROM m_take)",
    "DELETE FROM provenance WHERE run IN (SELECT ours FROM m_take)",
    "DELETE FROM checkpoint WHERE run IN (SELECT ours FROM m_take)",
    "INSERT INTO segment SELECT m.ours, s.segment, s.from_step, s.token, s.started_ms FROM m_take m JOIN src.segment s "
    "ON s.run = m.theirs",
    "INSERT INTO point SELECT m.ours, k.ours, s.step, s.segment, s.value, s.special FROM m_take m JOIN src.point s ON "
    "s.run = m.theirs JOIN m_key k ON k.theirs = s.key",
    "INSERT INTO chunk SELECT m.ours, k.ours, s.hidden, s.segment, s.first_step, s.last_step, s.stride, s.points, "
    "s.data "
    "FROM m_take m JOIN src.chunk s ON s.run = m.theirs JOIN m_key k ON k.theirs = s.key",
    "INSERT INTO summary SELECT m.ours, k.ours, s.points, s.specials, s.last, s.last_special, s.last_step, s.min, "
    "s.min_step, s.max, s.max_step FROM m_take m JOIN src.summary s ON s.run = m.theirs JOIN m_key k ON k.theirs = "
    "s.key",
    "INSERT INTO provenance SELECT m.ours, s.attempt, s.key, s.value FROM m_take m JOIN src.provenance s ON s.run = "
    "m.theirs",
    "INSERT INTO checkpoint SELECT m.ours, s.file, s.step, s.sha, s.keep, s.created_ms FROM m_take m JOIN "
    "src.checkpoint s "
    "ON s.run = m.theirs",
    /* sweeps */
    "INSERT INTO sweep(name, script_sha, script_name, sets, seed, declared, declared_ms) SELECT name, script_sha, "
    "script_name, sets, seed, declared, declared_ms FROM src.sweep WHERE true ON CONFLICT DO UPDATE SET script_name = "
    "excluded.script_name, seed = excluded.seed, declared = excluded.declared, declared_ms = excluded.declared_ms "
    "WHERE excluded.declared_ms > declared_ms",
    "INSERT INTO trial(sweep, ordinal, cell, factors, replicate, run, hidden) SELECT d.n, t.ordinal, t.cell, "
    "t.factors, "
    "t.replicate, r.ours, t.hidden FROM src.trial t JOIN src.sweep s ON s.n = t.sweep JOIN sweep d ON d.name = s.name "
    "AND "
    "d.script_sha = s.script_sha AND d.sets = s.sets JOIN m_run r ON r.theirs = t.run ORDER BY t.n "
    "ON CONFLICT DO UPDATE SET hidden = min(hidden, excluded.hidden), ordinal = min(ordinal, excluded.ordinal)",
    /* numbers and pictures; conflicts were counted before */
    "INSERT INTO eval(run, step, weights, evaluator, metric, sampler, nfe, samples, seed, value, seconds, flops, "
    "created_ms) "
    "SELECT r.ours, e.step, e.weights, v.ours, e.metric, e.sampler, e.nfe, e.samples, e.seed, e.value, e.seconds, "
    "e.flops, "
    "e.created_ms FROM src.eval e JOIN m_run r ON r.theirs = e.run JOIN m_evaluator v ON v.theirs = e.evaluator WHERE "
    "true "
    "ON CONFLICT DO UPDATE SET value = excluded.value, seconds = excluded.seconds, flops = excluded.flops, created_ms "
    "= "
    "excluded.created_ms WHERE (excluded.created_ms, ifnull(excluded.value, 0)) < (created_ms, ifnull(value, 0))",
    "INSERT INTO control(dataset, name, evaluator, metric, samples, seed, value, seconds, created_ms) SELECT "
    "c.dataset, "
    "c.name, v.ours, c.metric, c.samples, c.seed, c.value, c.seconds, c.created_ms FROM src.control c JOIN m_evaluator "
    "v ON "
    "v.theirs = c.evaluator WHERE true ON CONFLICT DO UPDATE SET value = excluded.value, seconds = excluded.seconds, "
    "created_ms = excluded.created_ms WHERE (excluded.created_ms, ifnull(excluded.value, 0)) < (created_ms, "
    "ifnull(value, 0))",
    "INSERT INTO artifact(run, role, sha) SELECT r.ours, a.role, a.sha FROM src.artifact a JOIN m_run r ON r.theirs = "
    "a.run "
    "WHERE true ON CONFLICT DO UPDATE SET sha = min(sha, excluded.sha)",
    "INSERT INTO tag SELECT r.ours, t.name FROM src.tag t JOIN m_run r ON r.theirs = t.run WHERE true ON CONFLICT DO "
    "NOTHING",
    "INSERT INTO note SELECT r.ours, t.made_ms, t.text FROM src.note t JOIN m_run r ON r.theirs = t.run WHERE true "
    "ON CONFLICT DO NOTHING"};

static const char *const maps[] = {"m_key",    "m_evaluator", "m_setting", "m_base", "take_config",
                                   "m_config", "take_run",    "m_run",     "m_take"};

static err_t exec(struct ledger *l, const char *sql)
{
    int rc = sqlite3_exec(l->db, sql, NULL, NULL, NULL);
    return rc ? db_fail(l, rc, "merge") : ERR_OK;
}

static err_t drop_maps(struct ledger *l)
{
    for (size_t i = 0; i < ARRAY_LEN(maps); i++) {
        char sql[64];
        snprintf(sql, sizeof sql, "DROP TABLE IF EXISTS temp.%s", maps[i]);
        TRY(exec(l, sql));
    }
    return ERR_OK;
}

static err_t count(struct ledger *l, int64_t *out, const char *sql)
{
    bool found;
    return db_int(l, out, &found, sql, "");
}

/* Before anything is changed: what the two disagree on. */
static err_t conflicts(struct ledger *l, struct ledger_merge *m)
{
    TRY(count(
        l, &m->eval_conflicts,
        "SELECT count(*) FROM src.eval e JOIN src.run sr ON sr.n = e.run JOIN src.evaluator sv ON sv.n = e.evaluator "
        "JOIN run r ON r.id = sr.id JOIN evaluator v ON v.sha = sv.sha JOIN eval d ON d.run = r.n AND d.step = e.step "
        "AND d.weights = e.weights AND d.evaluator = v.n AND d.metric = e.metric WHERE d.value IS NOT e.value"));
    return count(
        l, &m->run_conflicts,
        "SELECT count(*) FROM src.run s JOIN run d USING (id) WHERE s.status = 'done' AND d.status = 'done' AND "
        "EXISTS (SELECT 1 FROM src.summary a JOIN src.key ka ON ka.n = a.key JOIN key kb ON kb.name = ka.name "
        "JOIN summary b ON b.run = d.n AND b.key = kb.n WHERE a.run = s.n AND a.last IS NOT b.last)");
}

static err_t check_source(struct ledger *l, const char *path)
{
    int64_t app = 0, theirs = 0, ours = 0, live = 0;
    TRY(count(l, &app, "PRAGMA src.application_id"));
    TRY(count(l, &theirs, "PRAGMA src.user_version"));
    TRY(count(l, &ours, "PRAGMA main.user_version"));
    if (app != APPLICATION_ID) return fail(ERR_FORMAT, "%s is not a ledger", path);
    if (theirs > ours)
        return fail(ERR_NEWER, "ledger %s was written by a newer ect (schema %lld, this one knows %lld)", path,
                    (long long)theirs, (long long)ours);
    if (theirs < ours)
        return fail(
            ERR_FORMAT,
            "ledger %s has schema %lld, older than %lld: `ect ledger check --migrate --ledger %s` brings it up to date",
            path, (long long)theirs, (long long)ours, path);
    TRY(count(l, &live, "SELECT count(*) FROM src.run WHERE status = 'running'"));
    if (live)
        log_warn("ledger %s: %lld of its runs are in progress or were cut off: they are taken as they are now", path,
                 (long long)live);
    return ERR_OK;
}

static err_t merge(struct ledger *l, struct ledger_merge *m)
{
    TRY(conflicts(l, m));
    TRY(count(l, &m->runs, "SELECT count(*) FROM src.run"));
    for (size_t i = 0; i < ARRAY_LEN(steps); i++) {
        TRY(exec(l, steps[i]));
        if (!strncmp(steps[i], "CREATE TEMP TABLE take_run", 26))
            TRY(count(l, &m->taken, "SELECT count(*) FROM temp.take_run"));
    }
    return drop_maps(l);
}

err_t ledger_merge(struct ledger *l, const char *path, struct ledger_merge *m)
{
    bool own;
    *m = (struct ledger_merge){0};
    if (!file_exists(path)) return fail(ERR_NOT_FOUND, "no ledger at %s", path);
    TRY(db_run(l, "ATTACH DATABASE ? AS src", "s", path));
    err_t err = check_source(l, path);
    if (!err) err = drop_maps(l);
    if (!err) err = tx_enter(l, true, &own);
    if (!err) err = tx_leave(l, own, merge(l, m));
    db_forget(l);
    if (sqlite3_exec(l->db, "DETACH DATABASE src", NULL, NULL, NULL))
        log_warn("ledger %s: detach %s: %s", l->path, path, sqlite3_errmsg(l->db));
    return err;
}

-- Migration 1: the whole ledger. Tables are ours to change by later migrations; the views at the end are the contract
-- with the reports and with `ect sql`: their columns only ever grow.
--
-- One idea: what is known about a run hangs on (config hash, replicate), never on a sweep. A sweep only points at runs
-- (trial), so equal cells of two sweeps are one run. Times are milliseconds since 1970 UTC. Hashes are lower-case hex.
-- 64-bit seeds are stored as signed integers of the same bits.

PRAGMA application_id = 0x45435431; -- "ECT1"

CREATE TABLE blob (
    sha TEXT PRIMARY KEY,
    size INTEGER NOT NULL,
    mime TEXT NOT NULL,
    data BLOB NOT NULL,
    created_ms INTEGER NOT NULL
) STRICT;

CREATE TABLE config (
    n INTEGER PRIMARY KEY,
    hash TEXT NOT NULL UNIQUE,
    canon TEXT NOT NULL, -- canonical text of the train settings that differ from their defaults
    created_ms INTEGER NOT NULL
) STRICT;

-- Every setting, defaults too; train settings are the same for all that share the hash, the others as last declared.
CREATE TABLE param (
    config INTEGER NOT NULL REFERENCES config(n),
    key TEXT NOT NULL,
    text TEXT NOT NULL,
    num REAL, -- NULL where text is not a number
    class TEXT NOT NULL CHECK (class IN ('train', 'eval', 'exec')),
    is_default INTEGER NOT NULL CHECK (is_default IN (0, 1)),
    PRIMARY KEY (config, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX param_by_key ON param(key, num);

CREATE TABLE sweep (
    n INTEGER PRIMARY KEY,
    name TEXT NOT NULL,
    script_sha TEXT NOT NULL REFERENCES blob(sha),
    script_name TEXT NOT NULL,
    sets TEXT NOT NULL, -- --set lines in force, "key=value\n"
    seed INTEGER NOT NULL,
    declared TEXT NOT NULL, -- JSON
    declared_ms INTEGER NOT NULL, -- when it was last declared
    UNIQUE (name, script_sha, sets) -- what a worker needs to find its cell again
) STRICT;

CREATE TABLE run (
    n INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE CHECK (length(id) = 16),
    config INTEGER NOT NULL REFERENCES config(n),
    replicate INTEGER NOT NULL,
    seed INTEGER NOT NULL,
    parent INTEGER REFERENCES run(n),
    status TEXT NOT NULL DEFAULT 'pending'
        CHECK (status IN ('pending', 'running', 'done', 'failed', 'diverged', 'interrupted', 'blocked')),
    reason TEXT NOT NULL DEFAULT '',
    token INTEGER NOT NULL DEFAULT 0,   -- fencing: of the claim in force; grows with every claim
    attempt INTEGER NOT NULL DEFAULT 0, -- claims so far
    threads INTEGER NOT NULL DEFAULT 0, -- of the first attempt, kept: bytes depend on it
    device TEXT NOT NULL DEFAULT '',
    host TEXT NOT NULL DEFAULT '',
    boot_id TEXT NOT NULL DEFAULT '',
    pid INTEGER NOT NULL DEFAULT 0,
    step INTEGER NOT NULL DEFAULT 0,
    iters INTEGER NOT NULL DEFAULT 0,
    nimg INTEGER NOT NULL DEFAULT 0,
    flops_nominal REAL NOT NULL DEFAULT 0,
    flops_predicted REAL NOT NULL DEFAULT 0,
    units_paper REAL NOT NULL DEFAULT 0,
    flops_closed REAL NOT NULL DEFAULT 0,   -- of attempts that ended
    flops_live REAL NOT NULL DEFAULT 0,     -- of the attempt in progress, as last reported
    seconds_closed REAL NOT NULL DEFAULT 0,
    seconds_live REAL NOT NULL DEFAULT 0,
    images_per_s REAL,
    exit_code INTEGER,
    signal INTEGER,
    created_ms INTEGER NOT NULL,
    started_ms INTEGER, -- of the first attempt
    ended_ms INTEGER,
    UNIQUE (config, replicate)
) STRICT;
CREATE INDEX run_by_parent ON run(parent) WHERE parent IS NOT NULL;

CREATE TABLE trial (
    n INTEGER PRIMARY KEY,
    sweep INTEGER NOT NULL REFERENCES sweep(n),
    ordinal INTEGER NOT NULL,
    cell TEXT NOT NULL,
    factors TEXT NOT NULL, -- JSON
    replicate INTEGER NOT NULL,
    run INTEGER NOT NULL REFERENCES run(n),
    hidden INTEGER NOT NULL DEFAULT 0, -- no longer declared
    UNIQUE (sweep, cell, replicate)
) STRICT;
CREATE INDEX trial_by_run ON trial(run);

-- One process's part of a run, from the checkpoint it began at.
CREATE TABLE segment (
    run INTEGER NOT NULL REFERENCES run(n),
    segment INTEGER NOT NULL, -- 1, 2, ...
    from_step INTEGER NOT NULL,
    token INTEGER NOT NULL,
    started_ms INTEGER NOT NULL,
    PRIMARY KEY (run, segment)
) STRICT, WITHOUT ROWID;

CREATE TABLE key (n INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE) STRICT;

-- No foreign keys here: two look-ups a point would take half of the time of logging it, and ledger_points has just made
-- them.
CREATE TABLE point (
    run INTEGER NOT NULL, -- run(n)
    key INTEGER NOT NULL, -- key(n)
    step INTEGER NOT NULL,
    segment INTEGER NOT NULL,
    value REAL, -- NULL where special
    special INTEGER NOT NULL DEFAULT 0 CHECK (special BETWEEN 0 AND 3), -- 0 finite, 1 NaN, 2 +inf, 3 -inf
    PRIMARY KEY (run, key, step, segment),
    CHECK ((special = 0) = (value IS NOT NULL))
) STRICT, WITHOUT ROWID;

CREATE TABLE evaluator (n INTEGER PRIMARY KEY, sha TEXT NOT NULL UNIQUE, canon TEXT NOT NULL) STRICT;

CREATE TABLE eval (
    run INTEGER NOT NULL REFERENCES run(n),
    step INTEGER NOT NULL,
    weights TEXT NOT NULL, -- "raw" or the EMA's name
    evaluator INTEGER NOT NULL REFERENCES evaluator(n),
    metric TEXT NOT NULL,
    sampler TEXT NOT NULL,
    nfe INTEGER NOT NULL,
    samples INTEGER NOT NULL,
    seed INTEGER NOT NULL,
    value REAL, -- NULL is NaN
    seconds REAL NOT NULL,
    flops REAL NOT NULL,
    created_ms INTEGER NOT NULL,
    PRIMARY KEY (run, step, weights, evaluator, metric)
) STRICT, WITHOUT ROWID;

-- What the same evaluator says of the data set itself: real half against half, a moment-matched Gaussian.
CREATE TABLE control (
    dataset TEXT NOT NULL, -- SHA-256 of the data set
    name TEXT NOT NULL,
    evaluator INTEGER NOT NULL REFERENCES evaluator(n),
    metric TEXT NOT NULL,
    samples INTEGER NOT NULL,
    seed INTEGER NOT NULL,
    value REAL, -- NULL is NaN
    seconds REAL NOT NULL,
    created_ms INTEGER NOT NULL,
    PRIMARY KEY (dataset, name, evaluator, metric)
) STRICT, WITHOUT ROWID;

CREATE TABLE artifact (
    run INTEGER NOT NULL REFERENCES run(n),
    role TEXT NOT NULL,
    sha TEXT NOT NULL REFERENCES blob(sha),
    PRIMARY KEY (run, role)
) STRICT, WITHOUT ROWID;

CREATE TABLE provenance (
    run INTEGER NOT NULL REFERENCES run(n),
    attempt INTEGER NOT NULL,
    key TEXT NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (run, key, attempt)
) STRICT, WITHOUT ROWID;

-- Checkpoint files by name: a file that is written again replaces its row.
CREATE TABLE checkpoint (
    run INTEGER NOT NULL REFERENCES run(n),
    file TEXT NOT NULL,
    step INTEGER NOT NULL,
    sha TEXT NOT NULL,
    keep INTEGER NOT NULL CHECK (keep IN (0, 1)),
    created_ms INTEGER NOT NULL,
    PRIMARY KEY (run, file)
) STRICT, WITHOUT ROWID;

-- ---- views ----------------------------------------------------------------------------------------------------------

CREATE VIEW v_run(run, sweep, cell, replicate, status, config_hash, flops_executed, flops_nominal, flops_ancestors,
                  flops_total, units_paper, seconds, started, rundir, parent, step, iters, images_per_s, reason,
                  seed, threads, device) AS
-- One row a run. sweep and cell: of the sweep declared last that has it (v_trial lists all). status: pending, running,
-- done, failed, diverged, interrupted, blocked. FLOPs are 2 per multiply-accumulate: executed adds all attempts,
-- nominal is images x 3F (edm) or 4F (ect), ancestors is what the chain of parents executed, total = executed +
-- ancestors. units_paper: images x relative depth / 204.8 M. seconds: wall clock in training over all attempts.
-- started: first attempt, UTC. seed: text from 2^63 on.
SELECT r.id, s.name, t.cell, r.replicate, r.status, c.hash, r.flops_closed + r.flops_live, r.flops_nominal,
       (WITH RECURSIVE up(n) AS (SELECT r.parent UNION SELECT q.parent FROM up JOIN run q ON q.n = up.n)
        SELECT total(q.flops_closed + q.flops_live) FROM up JOIN run q ON q.n = up.n),
       r.flops_closed + r.flops_live +
       (WITH RECURSIVE up(n) AS (SELECT r.parent UNION SELECT q.parent FROM up JOIN run q ON q.n = up.n)
        SELECT total(q.flops_closed + q.flops_live) FROM up JOIN run q ON q.n = up.n),
       r.units_paper, r.seconds_closed + r.seconds_live,
       strftime('%Y-%m-%dT%H:%M:%SZ', r.started_ms / 1000, 'unixepoch'),
       (SELECT CASE WHEN file LIKE '%.db' THEN substr(file, 1, length(file) - 3) ELSE file END
          FROM pragma_database_list WHERE name = 'main') || '.runs/' || r.id,
       p.id, r.step, r.iters, r.images_per_s, r.reason,
       CASE WHEN r.seed < 0 THEN printf('%u', r.seed) ELSE r.seed END, r.threads, r.device
  FROM run r
  JOIN config c ON c.n = r.config
  LEFT JOIN run p ON p.n = r.parent
  LEFT JOIN trial t ON t.n = (SELECT x.n FROM trial x JOIN sweep y ON y.n = x.sweep WHERE x.run = r.n
                               ORDER BY x.hidden, y.declared_ms DESC, x.sweep DESC, x.ordinal LIMIT 1)
  LEFT JOIN sweep s ON s.n = t.sweep;

CREATE VIEW v_eval(run, metric, value, nfe, sampler, weights, samples, seed, step, evaluator, seconds, flops) AS
-- One row an evaluation. value NULL: not a number. weights: "raw" or the EMA's name. step: of the checkpoint.
-- evaluator: SHA-256 of its canonical text; only values of the same evaluator may be compared. flops and seconds: of
-- generating and measuring.
SELECT r.id, e.metric, e.value, e.nfe, e.sampler, e.weights, e.samples,
       CASE WHEN e.seed < 0 THEN printf('%u', e.seed) ELSE e.seed END, e.step, v.sha, e.seconds, e.flops
  FROM eval e JOIN run r ON r.n = e.run JOIN evaluator v ON v.n = e.evaluator;

CREATE VIEW v_metric(run, key, step, value, special) AS
-- The curves. special: '' or 'nan', 'inf', '-inf', and then value is NULL. After a resume, points beyond the checkpoint
-- it began at are those of the later process; the abandoned tail stays in table point.
SELECT r.id, k.name, p.step, p.value, CASE p.special WHEN 0 THEN '' WHEN 1 THEN 'nan' WHEN 2 THEN 'inf' ELSE '-inf' END
  FROM point p JOIN run r ON r.n = p.run JOIN key k ON k.n = p.key
 WHERE NOT EXISTS (SELECT 1 FROM segment s WHERE s.run = p.run AND s.segment > p.segment AND s.from_step < p.step)
   AND NOT EXISTS (SELECT 1 FROM point q
                    WHERE q.run = p.run AND q.key = p.key AND q.step = p.step AND q.segment > p.segment);

CREATE VIEW v_param(run, config_hash, key, text, num, class, is_default) AS
-- Every setting of every run, defaults too. text: canonical. num: NULL where it is not a number. class: train (hashed),
-- eval, exec.
SELECT r.id, c.hash, p.key, p.text, p.num, p.class, p.is_default
  FROM run r JOIN config c ON c.n = r.config JOIN param p ON p.config = r.config;

CREATE VIEW v_trial(sweep, sweep_id, ordinal, cell, factors, replicate, run) AS
-- Which run is which cell and replicate of a sweep; a run may be in several. factors: JSON object, factor to label.
-- Only trials that the script still declares.
SELECT s.name, s.n, t.ordinal, t.cell, t.factors, t.replicate, r.id
  FROM trial t JOIN sweep s ON s.n = t.sweep JOIN run r ON r.n = t.run WHERE NOT t.hidden;

CREATE VIEW v_sweep(sweep, sweep_id, seed, script, script_sha, declared, created, sets) AS
-- One row a (name, script text, --set lines). script: its file name; its text is the blob script_sha. declared: JSON with
-- factors, tables, pareto, evaluations. created: when it was last declared, UTC with milliseconds; the newest is the one in
-- force. sets: --set lines in force.
SELECT name, n, seed, script_name, script_sha, declared,
       strftime('%Y-%m-%dT%H:%M:%S', declared_ms / 1000, 'unixepoch') || printf('.%03dZ', declared_ms % 1000), sets
  FROM sweep;

CREATE VIEW v_evaluator(evaluator, canon) AS
-- What an evaluator is, in words: "key=value" lines of everything that could change its numbers. evaluator: SHA-256 of
-- that text.
SELECT sha, canon FROM evaluator;

CREATE VIEW v_control(dataset, name, metric, value, samples, seed, evaluator) AS
-- What an evaluator says of the data set itself. name: real_half (one half against the other), gaussian (moment-matched
-- noise).
SELECT c.dataset, c.name, c.metric, c.value, c.samples,
       CASE WHEN c.seed < 0 THEN printf('%u', c.seed) ELSE c.seed END, v.sha
  FROM control c JOIN evaluator v ON v.n = c.evaluator;

CREATE VIEW v_artifact(run, role, sha, size) AS
-- Pictures and other small results. role: grid:data, grid:ect@1, ... The bytes are the blob sha.
SELECT r.id, a.role, a.sha, b.size FROM artifact a JOIN run r ON r.n = a.run JOIN blob b ON b.sha = a.sha;

CREATE VIEW v_provenance(run, key, value) AS
-- Where a run comes from: git.revision, binary.sha, cpu, ... as its latest attempt said (table provenance keeps all
-- attempts).
SELECT r.id, p.key, p.value FROM provenance p JOIN run r ON r.n = p.run
 WHERE NOT EXISTS (SELECT 1 FROM provenance q WHERE q.run = p.run AND q.key = p.key AND q.attempt > p.attempt);

CREATE VIEW v_segment(run, segment, from_step, started) AS
-- One row a process that trained a part of the run, and the step of the checkpoint it began at (0: from nothing).
SELECT r.id, s.segment, s.from_step, strftime('%Y-%m-%dT%H:%M:%SZ', s.started_ms / 1000, 'unixepoch')
  FROM segment s JOIN run r ON r.n = s.run;

CREATE VIEW v_checkpoint(run, step, file, sha, keep) AS
-- Checkpoint files, relative to the run's directory. keep 0: may be gone, replaced by a later one.
SELECT r.id, c.step, c.file, c.sha, c.keep FROM checkpoint c JOIN run r ON r.n = c.run;

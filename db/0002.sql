-- Migration 2: a million runs. Settings are stored once per value instead of once per configuration, curves of ended runs in
-- chunks instead of rows, and every curve has a summary, so that lists, filters and fronts read no curve.

-- ---- settings -----------------------------------------------------------------------------------------------------------

-- A value of a setting. Configurations point at it.
CREATE TABLE setting (
    n INTEGER PRIMARY KEY,
    key TEXT NOT NULL,
    text TEXT NOT NULL,
    num REAL, -- NULL where text is not a number
    class TEXT NOT NULL CHECK (class IN ('train', 'eval', 'exec')),
    is_default INTEGER NOT NULL CHECK (is_default IN (0, 1)),
    UNIQUE (key, text, class, is_default)
) STRICT;
CREATE INDEX setting_by_num ON setting(key, num);

-- Defaults that many configurations share: all that were written with the same list of settings. sha: of that list. A
-- configuration has the settings of its base but those that it has itself.
CREATE TABLE base (n INTEGER PRIMARY KEY, sha TEXT NOT NULL UNIQUE) STRICT;
CREATE TABLE base_setting (
    base INTEGER NOT NULL REFERENCES base(n),
    setting INTEGER NOT NULL REFERENCES setting(n),
    PRIMARY KEY (base, setting)
) STRICT, WITHOUT ROWID;

ALTER TABLE config ADD COLUMN base INTEGER REFERENCES base(n);
CREATE TABLE config_setting (
    config INTEGER NOT NULL REFERENCES config(n),
    setting INTEGER NOT NULL REFERENCES setting(n),
    PRIMARY KEY (config, setting)
) STRICT, WITHOUT ROWID;
CREATE INDEX config_by_setting ON config_setting(setting, config);

INSERT INTO setting(key, text, num, class, is_default)
    SELECT key, text, min(num), class, is_default FROM param GROUP BY key, text, class, is_default;
INSERT INTO config_setting(config, setting)
    SELECT p.config, s.n FROM param p
      JOIN setting s ON s.key = p.key AND s.text = p.text AND s.class = p.class AND s.is_default = p.is_default;

DROP VIEW v_param;
DROP TABLE param;
CREATE VIEW v_param(run, config_hash, key, text, num, class, is_default) AS
-- Every setting of every run, defaults too. text: canonical. num: NULL where it is not a number. class: train (hashed),
-- eval, exec.
SELECT r.id, c.hash, s.key, s.text, s.num, s.class, s.is_default
  FROM run r JOIN config c ON c.n = r.config JOIN config_setting x ON x.config = c.n JOIN setting s ON s.n = x.setting
UNION ALL
SELECT r.id, c.hash, s.key, s.text, s.num, s.class, s.is_default
  FROM run r JOIN config c ON c.n = r.config JOIN base_setting b ON b.base = c.base JOIN setting s ON s.n = b.setting
 WHERE NOT EXISTS (SELECT 1 FROM config_setting x JOIN setting y ON y.n = x.setting
                    WHERE x.config = c.n AND y.key = s.key);

-- ---- curves -------------------------------------------------------------------------------------------------------------

-- Points of an ended run, in order of steps. stride > 0: the steps are first_step, first_step + stride, ... and data holds the
-- values, little-endian float64, NaN and infinities as they are; stride 0: data holds pairs of int64 step and float64 value.
-- hidden: the abandoned tail of a process that was killed; segment: whose.
CREATE TABLE chunk (
    run INTEGER NOT NULL REFERENCES run(n),
    key INTEGER NOT NULL REFERENCES key(n),
    hidden INTEGER NOT NULL CHECK (hidden IN (0, 1)),
    segment INTEGER NOT NULL, -- 0 where not hidden
    first_step INTEGER NOT NULL,
    last_step INTEGER NOT NULL,
    stride INTEGER NOT NULL,
    points INTEGER NOT NULL,
    data BLOB NOT NULL,
    PRIMARY KEY (run, key, hidden, segment, first_step)
) STRICT, WITHOUT ROWID;

-- What a curve came to. Kept with every batch of points; made again when a run goes back to a checkpoint.
CREATE TABLE summary (
    run INTEGER NOT NULL REFERENCES run(n),
    key INTEGER NOT NULL REFERENCES key(n),
    points INTEGER NOT NULL,
    specials INTEGER NOT NULL,     -- of them NaN or infinite: not in min and max
    last REAL,                     -- NULL where last_special
    last_special INTEGER NOT NULL, -- as point.special
    last_step INTEGER NOT NULL,
    min REAL, min_step INTEGER, -- NULL where there is one point, or none that is finite
    max REAL, max_step INTEGER,
    PRIMARY KEY (run, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX summary_by_last ON summary(key, last, run);

DROP VIEW v_metric;
CREATE VIEW v_metric(run, key, step, value, special) AS
-- The curves. special: '' or 'nan', 'inf', '-inf', and then value is NULL. After a resume, points beyond the checkpoint
-- it began at are those of the later process; the abandoned tail stays in table point or chunk. curve_points is a function of
-- this program: other readers of the file find the curves of ended runs in table chunk.
SELECT r.id, k.name, p.step, p.value, CASE p.special WHEN 0 THEN '' WHEN 1 THEN 'nan' WHEN 2 THEN 'inf' ELSE '-inf' END
  FROM point p JOIN run r ON r.n = p.run JOIN key k ON k.n = p.key
 WHERE NOT EXISTS (SELECT 1 FROM segment s WHERE s.run = p.run AND s.segment > p.segment AND s.from_step < p.step)
   AND NOT EXISTS (SELECT 1 FROM point q
                    WHERE q.run = p.run AND q.key = p.key AND q.step = p.step AND q.segment > p.segment)
UNION ALL
SELECT r.id, k.name, p.step, p.value, CASE p.special WHEN 0 THEN '' WHEN 1 THEN 'nan' WHEN 2 THEN 'inf' ELSE '-inf' END
  FROM chunk c JOIN run r ON r.n = c.run JOIN key k ON k.n = c.key
  JOIN curve_points(c.data, c.first_step, c.stride) p
 WHERE NOT c.hidden;

CREATE VIEW v_summary(run, key, points, specials, last, last_step, min, min_step, max, max_step) AS
-- One row a curve. last: of the last step, NULL where that was not finite. min, max: of the finite values.
SELECT r.id, k.name, s.points, s.specials, s.last, s.last_step,
       ifnull(s.min, s.last), ifnull(s.min_step, s.last_step), ifnull(s.max, s.last), ifnull(s.max_step, s.last_step)
  FROM summary s JOIN run r ON r.n = s.run JOIN key k ON k.n = s.key;

INSERT INTO summary(run, key, points, specials, last, last_special, last_step, min, min_step, max, max_step)
    WITH seen AS (
        SELECT p.* FROM point p
         WHERE NOT EXISTS (SELECT 1 FROM segment s WHERE s.run = p.run AND s.segment > p.segment AND s.from_step < p.step)
           AND NOT EXISTS (SELECT 1 FROM point q WHERE q.run = p.run AND q.key = p.key AND q.step = p.step
                                                   AND q.segment > p.segment)),
    agg AS (SELECT run, key, count(*) AS points, sum(special <> 0) AS specials, max(step) AS last_step,
                   min(value) AS lo, max(value) AS hi FROM seen GROUP BY run, key)
    SELECT a.run, a.key, a.points, a.specials, z.value, z.special, a.last_step,
           CASE WHEN a.points > 1 THEN a.lo END,
           CASE WHEN a.points > 1 THEN (SELECT min(step) FROM seen WHERE run = a.run AND key = a.key AND value = a.lo) END,
           CASE WHEN a.points > 1 THEN a.hi END,
           CASE WHEN a.points > 1 THEN (SELECT min(step) FROM seen WHERE run = a.run AND key = a.key AND value = a.hi) END
      FROM agg a JOIN seen z ON z.run = a.run AND z.key = a.key AND z.step = a.last_step;

-- ---- runs ---------------------------------------------------------------------------------------------------------------

ALTER TABLE run ADD COLUMN flops_above REAL; -- executed by the chain of parents, once the run has been claimed (they have ended)
ALTER TABLE run ADD COLUMN kind TEXT NOT NULL DEFAULT 'trained' CHECK (kind IN ('trained', 'imported'));
ALTER TABLE run ADD COLUMN hidden INTEGER NOT NULL DEFAULT 0 CHECK (hidden IN (0, 1)); -- by `ect rm`
ALTER TABLE run ADD COLUMN device_bytes INTEGER; -- most that a process of it held on its device
UPDATE run SET flops_above = 0 WHERE parent IS NULL;

CREATE TABLE tag (
    run INTEGER NOT NULL REFERENCES run(n),
    name TEXT NOT NULL,
    PRIMARY KEY (run, name)
) STRICT, WITHOUT ROWID;
CREATE INDEX tag_by_name ON tag(name, run);
CREATE TABLE note (
    run INTEGER NOT NULL REFERENCES run(n),
    made_ms INTEGER NOT NULL,
    text TEXT NOT NULL,
    PRIMARY KEY (run, made_ms, text)
) STRICT, WITHOUT ROWID;
CREATE VIEW v_tag(run, tag) AS
-- Words that people put on runs (ect tag).
SELECT r.id, t.name FROM tag t JOIN run r ON r.n = t.run;
CREATE VIEW v_note(run, made, text) AS
-- What people wrote about runs (ect note), UTC.
SELECT r.id, strftime('%Y-%m-%dT%H:%M:%SZ', t.made_ms / 1000, 'unixepoch'), t.text FROM note t JOIN run r ON r.n = t.run;

-- a cell that is gone from a script is looked for at its ordinal
CREATE INDEX trial_by_ordinal ON trial(sweep, ordinal);
CREATE INDEX eval_by_metric ON eval(metric, nfe, run, value);

DROP VIEW v_run;
CREATE VIEW v_run(run, sweep, cell, replicate, status, config_hash, flops_executed, flops_nominal, flops_ancestors,
                  flops_total, units_paper, seconds, started, rundir, parent, step, iters, images_per_s, reason,
                  seed, threads, device, kind) AS
-- One row a run that is not hidden. sweep and cell: of the sweep declared last that has it (v_trial lists all). status: pending,
-- running, done, failed, diverged, interrupted, blocked. FLOPs are 2 per multiply-accumulate: executed adds all attempts,
-- nominal is images x 3F (edm), 4F (ect) ..., ancestors is what the chain of parents executed, total = executed +
-- ancestors. units_paper: images x relative depth / 204.8 M. seconds: wall clock in training over all attempts.
-- started: first attempt, UTC. seed: text from 2^63 on. kind: trained, or imported from elsewhere.
SELECT r.id, s.name, t.cell, r.replicate, r.status, c.hash, r.flops_closed + r.flops_live, r.flops_nominal,
       CASE WHEN r.flops_above IS NOT NULL THEN r.flops_above ELSE
       (WITH RECURSIVE up(n) AS (SELECT r.parent UNION SELECT q.parent FROM up JOIN run q ON q.n = up.n)
        SELECT total(q.flops_closed + q.flops_live) FROM up JOIN run q ON q.n = up.n) END,
       r.flops_closed + r.flops_live + CASE WHEN r.flops_above IS NOT NULL THEN r.flops_above ELSE
       (WITH RECURSIVE up(n) AS (SELECT r.parent UNION SELECT q.parent FROM up JOIN run q ON q.n = up.n)
        SELECT total(q.flops_closed + q.flops_live) FROM up JOIN run q ON q.n = up.n) END,
       r.units_paper, r.seconds_closed + r.seconds_live,
       strftime('%Y-%m-%dT%H:%M:%SZ', r.started_ms / 1000, 'unixepoch'),
       (SELECT CASE WHEN file LIKE '%.db' THEN substr(file, 1, length(file) - 3) ELSE file END
          FROM pragma_database_list WHERE name = 'main') || '.runs/' || r.id,
       p.id, r.step, r.iters, r.images_per_s, r.reason,
       CASE WHEN r.seed < 0 THEN printf('%u', r.seed) ELSE r.seed END, r.threads, r.device, r.kind
  FROM run r
  JOIN config c ON c.n = r.config
  LEFT JOIN run p ON p.n = r.parent
  LEFT JOIN trial t ON t.n = (SELECT x.n FROM trial x JOIN sweep y ON y.n = x.sweep WHERE x.run = r.n
                               ORDER BY x.hidden, y.declared_ms DESC, x.sweep DESC, x.ordinal LIMIT 1)
  LEFT JOIN sweep s ON s.n = t.sweep
 WHERE NOT r.hidden;

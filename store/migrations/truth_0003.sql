-- The queue: tenants with their quotas, what they used, what every attempt cost, prices. Amounts are whole numbers:
-- cpus and gpus in millionths, memory and storage in bytes, money in millionths of the unit of account.
ALTER TABLE pool ADD COLUMN price_cpu INTEGER NOT NULL DEFAULT 0;      -- for an hour of one CPU
ALTER TABLE pool ADD COLUMN price_gpu INTEGER NOT NULL DEFAULT 0;
ALTER TABLE pool ADD COLUMN price_memory INTEGER NOT NULL DEFAULT 0;   -- for an hour of 10^9 bytes

ALTER TABLE job ADD COLUMN priority INTEGER NOT NULL DEFAULT 0;
ALTER TABLE job ADD COLUMN estimate INTEGER NOT NULL DEFAULT 0;
ALTER TABLE job ADD COLUMN cost INTEGER NOT NULL DEFAULT 0;
ALTER TABLE job ADD COLUMN promised_at_ms INTEGER;

ALTER TABLE step ADD COLUMN task_estimate INTEGER NOT NULL DEFAULT 0;  -- what is reserved for each of its tasks

INSERT INTO counter VALUES ('ledger', 0);

CREATE TABLE tenant (
    name          TEXT PRIMARY KEY NOT NULL,
    created_at_ms INTEGER NOT NULL,
    note          TEXT NOT NULL,
    weight        INTEGER NOT NULL,
    priority_max  INTEGER NOT NULL,
    on_full       TEXT NOT NULL,
    on_budget     TEXT NOT NULL,
    runtime_ms    INTEGER NOT NULL,
    cpus          INTEGER,                      -- quotas; NULL: no limit
    gpus          INTEGER,
    memory        INTEGER,
    running       INTEGER,
    queued        INTEGER,
    storage       INTEGER,
    ingress       INTEGER,
    egress        INTEGER,
    budget        INTEGER
) STRICT, WITHOUT ROWID;

-- Whoever was named before tenants had rows goes on as before: no limits. `default` needs no row.
INSERT INTO tenant
SELECT name, min(since_ms), '', 1, 0, 'queue', 'continue', 3600000,
       NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL
  FROM (SELECT tenant AS name, created_at_ms AS since_ms FROM token WHERE tenant IS NOT NULL
        UNION ALL
        SELECT tenant, submitted_at_ms FROM job)
 WHERE name NOT IN ('', 'default')
 GROUP BY name;

CREATE TABLE account (
    tenant      TEXT PRIMARY KEY NOT NULL,
    month       INTEGER NOT NULL,               -- as 202611, UTC
    cost        INTEGER NOT NULL,
    ingress     INTEGER NOT NULL,
    egress      INTEGER NOT NULL,
    storage     INTEGER NOT NULL,
    share       REAL NOT NULL,
    share_at_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- What every rank of every attempt was charged; the account of a month is the sum of these, exactly.
CREATE TABLE ledger (
    seq          INTEGER PRIMARY KEY NOT NULL,
    at_ms        INTEGER NOT NULL,
    month        INTEGER NOT NULL,
    tenant       TEXT NOT NULL,
    job_id       INTEGER NOT NULL,
    step         INTEGER NOT NULL,
    task         INTEGER NOT NULL,
    attempt      INTEGER NOT NULL,
    rank         INTEGER NOT NULL,
    provider_id  TEXT NOT NULL,
    pool         TEXT NOT NULL,
    cpus         INTEGER NOT NULL,
    gpus         INTEGER NOT NULL,
    memory       INTEGER NOT NULL,
    price_cpu    INTEGER NOT NULL,
    price_gpu    INTEGER NOT NULL,
    price_memory INTEGER NOT NULL,
    ran_ms       INTEGER NOT NULL,
    cost         INTEGER NOT NULL
) STRICT;
-- Each of these has the seq behind it.
CREATE INDEX ledger_of_tenant ON ledger (tenant);
CREATE INDEX ledger_of_month ON ledger (month);
CREATE INDEX ledger_of_job ON ledger (job_id);

-- Tasks, attempts and audit are written by the thousand: what nobody asks for is one column of JSON.
ALTER TABLE task RENAME TO task_v2;
CREATE TABLE task (
    job_id INTEGER NOT NULL,
    step   INTEGER NOT NULL,
    task   INTEGER NOT NULL,
    state  TEXT NOT NULL,
    body   TEXT NOT NULL,                      -- JSON object: the row; what it does not name has its default
    PRIMARY KEY (job_id, step, task)
) STRICT, WITHOUT ROWID;
INSERT INTO task
SELECT job_id, step, task, state,
       json_object('row', 'task', 'job_id', job_id, 'step', step, 'task', task, 'state', state, 'attempts', attempts,
                   'failures', failures, 'losses', losses, 'not_before_ms', not_before_ms,
                   'failed_on', json(failed_on), 'straggler', json(iif(straggler, 'true', 'false')),
                   'started_at_ms', started_at_ms, 'ended_at_ms', ended_at_ms, 'exit_code', exit_code,
                   'reason', reason, 'waits_for', waits_for)
  FROM task_v2;
DROP TABLE task_v2;
CREATE INDEX task_live ON task (job_id, step, task) WHERE state IN ('pending', 'staging', 'running');
CREATE INDEX task_failed ON task (job_id, step, task) WHERE state IN ('failed', 'cancelled');

ALTER TABLE attempt RENAME TO attempt_v2;
CREATE TABLE attempt (
    job_id  INTEGER NOT NULL,
    step    INTEGER NOT NULL,
    task    INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    held    INTEGER NOT NULL,                  -- 1: live, or a rank of it still holds capacity
    body    TEXT NOT NULL,                     -- JSON object, as of a task
    PRIMARY KEY (job_id, step, task, attempt)
) STRICT, WITHOUT ROWID;
INSERT INTO attempt
SELECT job_id, step, task, attempt, held,
       json_object('row', 'attempt', 'job_id', job_id, 'step', step, 'task', task, 'attempt', attempt, 'state', state,
                   'created_at_ms', created_at_ms, 'ranks', json(ranks),
                   'token', json_array(token_generation, token_number), 'term_ms', term_ms,
                   'started_at_ms', started_at_ms, 'ended_at_ms', ended_at_ms, 'doubted_at_ms', doubted_at_ms,
                   'lease_over_ms', lease_over_ms, 'reason', reason, 'unblocked_by', unblocked_by,
                   'forecast', forecast)
  FROM attempt_v2;
DROP TABLE attempt_v2;
CREATE INDEX attempt_held ON attempt (job_id, step, task, attempt) WHERE held = 1;

DROP INDEX audit_of_subject;
DROP INDEX audit_of_job;
DROP INDEX audit_of_tenant;
DROP INDEX audit_of_entity;
ALTER TABLE audit RENAME TO audit_v2;
CREATE TABLE audit (
    first   INTEGER PRIMARY KEY NOT NULL,      -- number of the first row of the pack
    last    INTEGER NOT NULL,
    wall_ns INTEGER NOT NULL,                  -- of the last row
    body    TEXT NOT NULL                      -- JSON array of rows, each an array in the order of their fields
) STRICT;
-- Where what is looked for may be: the packs that name it.
CREATE TABLE audit_of_subject (
    subject TEXT NOT NULL,                     -- of what is no task and no attempt
    first   INTEGER NOT NULL,
    PRIMARY KEY (subject, first)
) STRICT, WITHOUT ROWID;
CREATE TABLE audit_of_job (
    job_id INTEGER NOT NULL,
    first  INTEGER NOT NULL,
    low    INTEGER NOT NULL,                   -- tasks of it that the pack names lie between these, as step << 40 | task
    high   INTEGER NOT NULL,
    PRIMARY KEY (job_id, first)
) STRICT, WITHOUT ROWID;
CREATE TABLE audit_of_entity (
    entity TEXT NOT NULL,                      -- but for tasks and attempts
    first  INTEGER NOT NULL,
    PRIMARY KEY (entity, first)
) STRICT, WITHOUT ROWID;
CREATE TABLE audit_of_tenant (
    tenant TEXT NOT NULL,
    first  INTEGER NOT NULL,
    PRIMARY KEY (tenant, first)
) STRICT, WITHOUT ROWID;
INSERT INTO audit
SELECT min(seq), max(seq), max(wall_ns),
       json_group_array(json_array('audit', seq, wall_ns, mono_ns, entity, subject, after, before, why, by_whom,
                                   unblocked_by, tenant, job_id, provider_id) ORDER BY seq)
  FROM audit_v2 GROUP BY seq / 256;
WITH packed AS (SELECT *, min(seq) OVER (PARTITION BY seq / 256) AS first FROM audit_v2)
INSERT INTO audit_of_subject SELECT DISTINCT subject, first FROM packed WHERE entity NOT IN ('task', 'attempt');
WITH packed AS (SELECT *, min(seq) OVER (PARTITION BY seq / 256) AS first FROM audit_v2)
INSERT INTO audit_of_job
SELECT DISTINCT job_id, first, 0, 4611686018427387904 FROM packed WHERE job_id IS NOT NULL;
WITH packed AS (SELECT *, min(seq) OVER (PARTITION BY seq / 256) AS first FROM audit_v2)
INSERT INTO audit_of_entity SELECT DISTINCT entity, first FROM packed WHERE entity NOT IN ('task', 'attempt');
WITH packed AS (SELECT *, min(seq) OVER (PARTITION BY seq / 256) AS first FROM audit_v2)
INSERT INTO audit_of_tenant SELECT DISTINCT tenant, first FROM packed WHERE tenant <> '';
DROP TABLE audit_v2;

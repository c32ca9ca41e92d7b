-- Work: jobs, their steps, tasks and attempts, and the audit of what befell them. Times are Unix milliseconds.
ALTER TABLE provider ADD COLUMN promises TEXT NOT NULL DEFAULT '{}';   -- JSON object
ALTER TABLE provider ADD COLUMN quarantined_until_ms INTEGER;
ALTER TABLE provider ADD COLUMN quarantine_why TEXT NOT NULL DEFAULT '';
ALTER TABLE provider ADD COLUMN quarantines INTEGER NOT NULL DEFAULT 0;

INSERT INTO counter VALUES ('job_id', 0), ('token', 0), ('audit', 0);

-- How far the logs of ended jobs were removed, as (ended_at_ms, job_id): those of jobs up to there are gone.
INSERT INTO identity VALUES ('logs_removed_to', '0 0');

CREATE TABLE job (
    job_id          INTEGER PRIMARY KEY NOT NULL,
    tenant          TEXT NOT NULL,
    name            TEXT NOT NULL,
    state           TEXT NOT NULL,
    submitted_at_ms INTEGER NOT NULL,
    by_whom         TEXT NOT NULL,
    tasks           INTEGER NOT NULL,
    completed       INTEGER NOT NULL,
    failed          INTEGER NOT NULL,
    cancelled       INTEGER NOT NULL,
    started_at_ms   INTEGER,
    ended_at_ms     INTEGER,
    reason          TEXT NOT NULL,
    cancelling      TEXT NOT NULL,
    retries         INTEGER NOT NULL,
    idempotency_key TEXT NOT NULL,             -- SHA-256; empty: none
    body_digest     TEXT NOT NULL
) STRICT;
CREATE INDEX job_by_state ON job (state, job_id);
CREATE INDEX job_of_tenant ON job (tenant, state, job_id);
CREATE UNIQUE INDEX job_by_key ON job (tenant, idempotency_key) WHERE idempotency_key <> '';
CREATE INDEX job_ended ON job (ended_at_ms, job_id) WHERE ended_at_ms IS NOT NULL;

CREATE TABLE spec (
    job_id INTEGER PRIMARY KEY NOT NULL,
    spec   TEXT NOT NULL                       -- JSON object, every field written out: defaults may change
) STRICT;

CREATE TABLE step (
    job_id    INTEGER NOT NULL,
    step      INTEGER NOT NULL,
    state     TEXT NOT NULL,
    cursor    INTEGER NOT NULL,
    completed INTEGER NOT NULL,
    failed    INTEGER NOT NULL,
    cancelled INTEGER NOT NULL,
    reason    TEXT NOT NULL,
    PRIMARY KEY (job_id, step)
) STRICT, WITHOUT ROWID;

CREATE TABLE task (
    job_id        INTEGER NOT NULL,
    step          INTEGER NOT NULL,
    task          INTEGER NOT NULL,
    state         TEXT NOT NULL,
    attempts      INTEGER NOT NULL,
    failures      INTEGER NOT NULL,
    losses        INTEGER NOT NULL,
    not_before_ms INTEGER,
    failed_on     TEXT NOT NULL,               -- JSON array of provider ids
    straggler     INTEGER NOT NULL,
    started_at_ms INTEGER,
    ended_at_ms   INTEGER,
    exit_code     INTEGER,
    reason        TEXT NOT NULL,
    waits_for     TEXT NOT NULL,
    PRIMARY KEY (job_id, step, task)
) STRICT, WITHOUT ROWID;
CREATE INDEX task_live ON task (job_id, step, task) WHERE state IN ('pending', 'staging', 'running');
CREATE INDEX task_failed ON task (job_id, step, task) WHERE state IN ('failed', 'cancelled');

CREATE TABLE attempt (
    job_id           INTEGER NOT NULL,
    step             INTEGER NOT NULL,
    task             INTEGER NOT NULL,
    attempt          INTEGER NOT NULL,
    state            TEXT NOT NULL,
    created_at_ms    INTEGER NOT NULL,
    ranks            TEXT NOT NULL,            -- JSON array of objects
    token_generation INTEGER NOT NULL,
    token_number     INTEGER NOT NULL,
    term_ms          INTEGER NOT NULL,
    started_at_ms    INTEGER,
    ended_at_ms      INTEGER,
    doubted_at_ms    INTEGER,
    lease_over_ms    INTEGER,
    reason           TEXT NOT NULL,
    unblocked_by     TEXT NOT NULL,
    forecast         REAL,
    held             INTEGER NOT NULL,         -- 1: live, or a rank of it still holds capacity
    PRIMARY KEY (job_id, step, task, attempt)
) STRICT, WITHOUT ROWID;
CREATE INDEX attempt_held ON attempt (job_id, step, task, attempt) WHERE held = 1;

CREATE TABLE audit (
    seq          INTEGER PRIMARY KEY NOT NULL,
    wall_ns      INTEGER NOT NULL,
    mono_ns      INTEGER NOT NULL,
    entity       TEXT NOT NULL,
    subject      TEXT NOT NULL,
    after        TEXT NOT NULL,
    before       TEXT NOT NULL,
    why          TEXT NOT NULL,
    by_whom      TEXT NOT NULL,
    unblocked_by TEXT NOT NULL,
    tenant       TEXT NOT NULL,
    job_id       INTEGER,
    provider_id  TEXT
) STRICT;
-- Each of these has the seq behind it: SQLite ends every entry with the row's key.
CREATE INDEX audit_of_subject ON audit (subject);
CREATE INDEX audit_of_job ON audit (job_id) WHERE job_id IS NOT NULL;
CREATE INDEX audit_of_tenant ON audit (tenant) WHERE tenant <> '';
-- Tasks and attempts are most of it: a walk finds them without an index.
CREATE INDEX audit_of_entity ON audit (entity) WHERE entity NOT IN ('task', 'attempt');

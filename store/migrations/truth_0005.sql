-- Tasks, attempts and audit are most of what is written: new bodies are MessagePack, in BLOBs. Those that are there stay
-- JSON, in TEXT: which one it is, its type tells.
ALTER TABLE task RENAME TO task_v4;
CREATE TABLE task (
    job_id INTEGER NOT NULL,
    step   INTEGER NOT NULL,
    task   INTEGER NOT NULL,
    state  TEXT NOT NULL,
    body   ANY NOT NULL,                       -- the row: BLOB, an array as MessagePack; TEXT, a JSON object
    PRIMARY KEY (job_id, step, task)
) STRICT, WITHOUT ROWID;
INSERT INTO task SELECT job_id, step, task, state, body FROM task_v4;
DROP TABLE task_v4;
CREATE INDEX task_live ON task (job_id, step, task) WHERE state IN ('pending', 'staging', 'running');
CREATE INDEX task_failed ON task (job_id, step, task) WHERE state IN ('failed', 'cancelled');

ALTER TABLE attempt RENAME TO attempt_v4;
CREATE TABLE attempt (
    job_id  INTEGER NOT NULL,
    step    INTEGER NOT NULL,
    task    INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    held    INTEGER NOT NULL,                  -- 1: live, or a rank of it still holds capacity
    body    ANY NOT NULL,                      -- as of a task
    PRIMARY KEY (job_id, step, task, attempt)
) STRICT, WITHOUT ROWID;
INSERT INTO attempt SELECT job_id, step, task, attempt, held, body FROM attempt_v4;
DROP TABLE attempt_v4;
CREATE INDEX attempt_held ON attempt (job_id, step, task, attempt) WHERE held = 1;

ALTER TABLE audit RENAME TO audit_v4;
CREATE TABLE audit (
    first   INTEGER PRIMARY KEY NOT NULL,      -- number of the first row of the pack
    last    INTEGER NOT NULL,
    wall_ns INTEGER NOT NULL,                  -- of its newest row
    body    ANY NOT NULL                       -- an array of rows, each an array: BLOB, MessagePack; TEXT, JSON
) STRICT;
INSERT INTO audit SELECT first, last, wall_ns, body FROM audit_v4;
DROP TABLE audit_v4;

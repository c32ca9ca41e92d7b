-- Verdicts: what attempts died of, and which providers they speak against.
CREATE TABLE verdict (
    job_id  INTEGER NOT NULL,
    step    INTEGER NOT NULL,
    task    INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    body    TEXT NOT NULL,                     -- the row, as JSON
    PRIMARY KEY (job_id, step, task, attempt)
) STRICT, WITHOUT ROWID;

CREATE TABLE suspicion (
    provider_id TEXT NOT NULL,
    attempt     TEXT NOT NULL,                 -- JOB.STEP.TASK.ATTEMPT
    at_ms       INTEGER NOT NULL,
    cause       TEXT NOT NULL,
    confidence  REAL NOT NULL,                 -- 0 to 1
    line        TEXT NOT NULL,                 -- of its log
    PRIMARY KEY (provider_id, attempt)
) STRICT, WITHOUT ROWID;

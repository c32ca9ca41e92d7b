-- Ends of tasks that are put together are an entry of the audit's packs (no table changes for them).
--
-- First leases that were given together, on one provider, to tasks of one step that follow one another. A task has its
-- row in `task`, and its first attempt in `attempt`, from when something becomes of it by itself: that row counts then.
CREATE TABLE bundle (
    job_id      INTEGER NOT NULL,
    step        INTEGER NOT NULL,
    last        INTEGER NOT NULL,              -- number of its last task
    first       INTEGER NOT NULL,
    body        BLOB NOT NULL,                 -- the first task, its attempt, and each one's choice, as MessagePack
    launched_to INTEGER,                       -- from the first up to this task they were launched; NULL: none yet
    launched    BLOB,                          -- an attempt of these as it is since then
    PRIMARY KEY (job_id, step, last)
) STRICT, WITHOUT ROWID;

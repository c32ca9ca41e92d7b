-- The data: blobs and who holds them, artifacts, open uploads, results, checkpoints; what bytes a tenant moves and keeps.
ALTER TABLE account ADD COLUMN storage_mb_s INTEGER NOT NULL DEFAULT 0;
ALTER TABLE account ADD COLUMN storage_at_ms INTEGER NOT NULL DEFAULT 0;
ALTER TABLE ledger ADD COLUMN kind TEXT NOT NULL DEFAULT 'run';
ALTER TABLE ledger ADD COLUMN amount INTEGER NOT NULL DEFAULT 0;

CREATE TABLE blob (
    tenant        TEXT NOT NULL,
    digest        TEXT NOT NULL,                -- BLAKE3, hex
    size          INTEGER NOT NULL,
    created_at_ms INTEGER NOT NULL,
    touched_ms    INTEGER NOT NULL,
    sha256        TEXT NOT NULL,                -- hex, or empty
    held          INTEGER NOT NULL DEFAULT 0,   -- 1: somebody holds it; kept by the triggers below, nobody writes it
    PRIMARY KEY (tenant, digest)
) STRICT, WITHOUT ROWID;
CREATE INDEX blob_of_sha256 ON blob (tenant, sha256) WHERE sha256 <> '';
CREATE INDEX blob_unheld ON blob (touched_ms) WHERE held = 0;

CREATE TABLE hold (
    tenant  TEXT NOT NULL,
    holder  TEXT NOT NULL,                      -- artifact:NAME, job:12, task:12.0.3, checkpoint:12.0.3.7
    digests TEXT NOT NULL,                      -- JSON array
    PRIMARY KEY (tenant, holder)
) STRICT, WITHOUT ROWID;

-- The holds the other way round: who holds this blob. No statement but these triggers writes it.
CREATE TABLE held (
    tenant TEXT NOT NULL,
    digest TEXT NOT NULL,
    holder TEXT NOT NULL,
    PRIMARY KEY (tenant, digest, holder)
) STRICT, WITHOUT ROWID;

CREATE TRIGGER hold_begins AFTER INSERT ON hold BEGIN
    INSERT INTO held SELECT DISTINCT new.tenant, value, new.holder FROM json_each(new.digests);
END;
CREATE TRIGGER hold_changes AFTER UPDATE ON hold BEGIN
    DELETE FROM held WHERE tenant = old.tenant AND holder = old.holder
       AND digest IN (SELECT value FROM json_each(old.digests) EXCEPT SELECT value FROM json_each(new.digests));
    INSERT INTO held SELECT new.tenant, value, new.holder FROM (
        SELECT value FROM json_each(new.digests) EXCEPT SELECT value FROM json_each(old.digests)
    );
END;
CREATE TRIGGER hold_ends AFTER DELETE ON hold BEGIN
    DELETE FROM held WHERE tenant = old.tenant AND holder = old.holder
       AND digest IN (SELECT value FROM json_each(old.digests));
END;
CREATE TRIGGER held_begins AFTER INSERT ON held BEGIN
    UPDATE blob SET held = 1 WHERE tenant = new.tenant AND digest = new.digest AND held = 0;
END;
CREATE TRIGGER held_ends AFTER DELETE ON held BEGIN
    UPDATE blob SET held = 0 WHERE tenant = old.tenant AND digest = old.digest
       AND NOT EXISTS (SELECT 1 FROM held WHERE tenant = old.tenant AND digest = old.digest);
END;
CREATE TRIGGER blob_begins AFTER INSERT ON blob BEGIN
    UPDATE blob SET held = 1 WHERE tenant = new.tenant AND digest = new.digest
       AND EXISTS (SELECT 1 FROM held WHERE tenant = new.tenant AND digest = new.digest);
END;

CREATE TABLE artifact (
    tenant        TEXT NOT NULL,
    name          TEXT NOT NULL,
    digest        TEXT NOT NULL,
    size          INTEGER NOT NULL,
    created_at_ms INTEGER NOT NULL,
    by_whom       TEXT NOT NULL,
    executable    INTEGER NOT NULL,
    PRIMARY KEY (tenant, name)
) STRICT, WITHOUT ROWID;

CREATE TABLE upload (
    upload_id TEXT PRIMARY KEY NOT NULL,
    body      TEXT NOT NULL                     -- JSON object: the row; what it does not name has its default
) STRICT, WITHOUT ROWID;

CREATE TABLE output (
    job_id INTEGER NOT NULL,
    step   INTEGER NOT NULL,
    task   INTEGER NOT NULL,
    body   TEXT NOT NULL,                       -- JSON object, as of an upload
    PRIMARY KEY (job_id, step, task)
) STRICT, WITHOUT ROWID;

CREATE TABLE checkpoint (
    job_id INTEGER NOT NULL,
    step   INTEGER NOT NULL,
    task   INTEGER NOT NULL,
    number INTEGER NOT NULL,
    body   TEXT NOT NULL,                       -- JSON object, as of an upload
    PRIMARY KEY (job_id, step, task, number DESC)
) STRICT, WITHOUT ROWID;

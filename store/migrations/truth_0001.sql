-- Providers, sessions, outages, tokens, pools: what the coordinator must not forget. Times are Unix milliseconds.
CREATE TABLE identity (
    name  TEXT PRIMARY KEY NOT NULL,   -- epoch: a new one after each restore
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- The highest number ever given of each kind, so that none is given twice even after its row was pruned.
CREATE TABLE counter (
    name  TEXT PRIMARY KEY NOT NULL,   -- change_seq, session_id, import_id, key
    value INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO counter VALUES ('change_seq', 0), ('session_id', 0), ('import_id', 0), ('key', 0);

CREATE TABLE meta (
    name  TEXT PRIMARY KEY NOT NULL,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE provider (
    provider_id               TEXT PRIMARY KEY NOT NULL,
    key                       INTEGER NOT NULL UNIQUE,
    machine_id                TEXT NOT NULL,
    pool                      TEXT NOT NULL,
    credential_id             TEXT NOT NULL,
    enrolled_at_ms            INTEGER NOT NULL,
    labels                    TEXT NOT NULL,   -- JSON object
    resources                 TEXT NOT NULL,   -- JSON object
    boot_id                   TEXT NOT NULL,
    agent_version             TEXT NOT NULL,
    resume_digest             TEXT NOT NULL,
    resume_digest_unconfirmed TEXT NOT NULL,
    drained_at_ms             INTEGER,
    drain_note                TEXT NOT NULL,
    away_until_ms             INTEGER,
    last_seen_ms              INTEGER,
    last_end                  TEXT,
    stay_began_ms             INTEGER
) STRICT, WITHOUT ROWID;

-- Whose heartbeats a key stands for, kept when the provider is forgotten.
CREATE TABLE provider_key (
    key         INTEGER PRIMARY KEY NOT NULL,
    provider_id TEXT NOT NULL
) STRICT;

CREATE TABLE session (
    session_id           INTEGER PRIMARY KEY NOT NULL,   -- negative: imported
    provider_id          TEXT NOT NULL,
    connected_at_ms      INTEGER NOT NULL,
    disconnected_at_ms   INTEGER,                        -- NULL: open
    disconnect_reason    TEXT,
    last_heartbeat_at_ms INTEGER,
    coordinator_id       TEXT NOT NULL,                  -- 'import': from elsewhere
    boot_id              TEXT NOT NULL,
    process_id           TEXT NOT NULL,
    requests_served      INTEGER NOT NULL,
    tokens_generated     INTEGER NOT NULL,
    change_seq           INTEGER NOT NULL                -- rises with every change of any session
) STRICT;
CREATE UNIQUE INDEX session_changed ON session (change_seq);
CREATE INDEX session_of_provider ON session (provider_id, connected_at_ms, session_id);
CREATE INDEX session_by_end ON session (provider_id, disconnected_at_ms, connected_at_ms, session_id);
CREATE INDEX session_open ON session (coordinator_id) WHERE disconnected_at_ms IS NULL;
CREATE INDEX session_ended ON session (disconnected_at_ms)
    WHERE disconnected_at_ms IS NOT NULL AND coordinator_id <> 'import';
CREATE INDEX import_ended ON session (disconnected_at_ms)
    WHERE disconnected_at_ms IS NOT NULL AND coordinator_id = 'import';

CREATE TABLE outage (
    coordinator_id TEXT NOT NULL,
    began_at_ms    INTEGER NOT NULL,
    ended_at_ms    INTEGER NOT NULL,
    cause          TEXT NOT NULL,
    PRIMARY KEY (coordinator_id, began_at_ms)
) STRICT, WITHOUT ROWID;
CREATE INDEX outage_by_time ON outage (began_at_ms, ended_at_ms);

CREATE TABLE token (
    token_id      TEXT PRIMARY KEY NOT NULL,
    role          TEXT NOT NULL,
    digest        TEXT NOT NULL UNIQUE,   -- SHA-256 of its text, which is kept nowhere
    created_at_ms INTEGER NOT NULL,
    note          TEXT NOT NULL,
    expires_at_ms INTEGER,
    revoked_at_ms INTEGER,
    provider_id   TEXT,
    pool          TEXT,
    tenant        TEXT
) STRICT, WITHOUT ROWID;

CREATE TABLE pool (
    name          TEXT PRIMARY KEY NOT NULL,
    created_at_ms INTEGER NOT NULL,
    note          TEXT NOT NULL
) STRICT, WITHOUT ROWID;

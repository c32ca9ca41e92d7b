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

ALTER TABLE attempt ADD COLUMN choice TEXT;                            -- JSON object
ALTER TABLE attempt ADD COLUMN prefetched INTEGER NOT NULL DEFAULT 0;
ALTER TABLE attempt ADD COLUMN metered_ms INTEGER;

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

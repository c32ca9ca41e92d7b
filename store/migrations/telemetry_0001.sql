-- What may lose its last seconds. Heartbeats that are not sealed yet lie in one table per hour (store/heartbeats.py),
-- made with the hour's first heartbeat and dropped by the transaction that inserts its segment here.
CREATE TABLE segment (
    hour_ms      INTEGER NOT NULL,
    part         INTEGER NOT NULL,        -- 0, or more where heartbeats came after the hour was sealed
    file         TEXT NOT NULL UNIQUE,    -- name within segments/
    digest       TEXT NOT NULL,           -- SHA-256 of the file, hex
    bytes        INTEGER NOT NULL,
    rows         INTEGER NOT NULL,
    first_ms     INTEGER NOT NULL,        -- range of observed_at_ms
    last_ms      INTEGER NOT NULL,
    sealed_at_ms INTEGER NOT NULL,
    PRIMARY KEY (hour_ms, part)
) STRICT, WITHOUT ROWID;

CREATE TABLE hour (
    hour_ms                  INTEGER NOT NULL,
    key                      INTEGER NOT NULL,
    heartbeats               INTEGER NOT NULL,
    mean_memory_pressure     REAL,
    mean_cpu_usage           REAL,
    worst_thermal_state      INTEGER,     -- index into wire.THERMALS
    mean_memory_available_gb REAL,
    PRIMARY KEY (hour_ms, key)
) STRICT, WITHOUT ROWID;

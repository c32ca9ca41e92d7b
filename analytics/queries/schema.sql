-- The warehouse: everything here is derived from the store and rebuilt when it is missing, damaged or of another
-- epoch. Times are Unix milliseconds; -1 is "none". Codes are small integers that stand for names.
--   meta         facts about the warehouse itself: schema, epoch, change_seq (what was read so far)
--   provider     code <-> provider_id
--   coordinator  code <-> coordinator_id
--   session      one row per session; reason indexes the reasons' list; boot: CRC-32 of the boot id, 0 unknown
CREATE TABLE meta (name VARCHAR PRIMARY KEY, value VARCHAR NOT NULL);
CREATE TABLE provider (code INTEGER PRIMARY KEY, provider_id VARCHAR NOT NULL);
CREATE TABLE coordinator (code SMALLINT PRIMARY KEY, coordinator_id VARCHAR NOT NULL);
CREATE TABLE session (
    session_id BIGINT NOT NULL,
    provider INTEGER NOT NULL,
    start_ms BIGINT NOT NULL,
    end_ms BIGINT NOT NULL,
    beat_ms BIGINT NOT NULL,
    reason TINYINT NOT NULL,
    boot INTEGER NOT NULL,
    ours BOOLEAN NOT NULL,
    coordinator SMALLINT NOT NULL
);

-- Sessions as the reliability room takes them, in the order they are stored (mostly by provider and start).
-- Parameters: $until_ms (sessions that begin later are left out), $since_ms (so are those that ended before), $codes (providers
-- that the caller knows: a later one is not in its list of names yet).
-- Columns: provider code; start, end, last heartbeat in Unix ms (-1 none); reason index; boot; ours.
SELECT provider, start_ms, end_ms, beat_ms, reason, boot, ours
  FROM session
 WHERE provider < $codes AND start_ms <= $until_ms AND (end_ms < 0 OR end_ms >= $since_ms);

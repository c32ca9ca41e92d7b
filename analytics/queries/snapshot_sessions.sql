-- The view `sessions`: one row per session of all kept history. Times UTC, lengths in seconds.
SELECT s.session_id,
       p.provider_id,
       epoch_ms(s.start_ms) AS connected_at,
       CASE WHEN s.end_ms >= 0 THEN epoch_ms(s.end_ms) END AS disconnected_at,
       CASE WHEN s.reason >= 0 THEN list_extract($reasons, s.reason + 1) END AS disconnect_reason,
       CASE WHEN s.beat_ms >= 0 THEN epoch_ms(s.beat_ms) END AS last_heartbeat_at,
       c.coordinator_id,
       CASE WHEN s.end_ms >= 0 THEN (s.end_ms - s.start_ms) / 1000.0 END AS duration_seconds
  FROM session s JOIN provider p ON p.code = s.provider JOIN coordinator c ON c.code = s.coordinator;

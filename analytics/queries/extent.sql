-- What the history spans. Columns: first start, last moment known (both Unix ms, NULL without rows), whether
-- any of it was seen by this coordinator.
SELECT min(start_ms) AS first_ms, max(greatest(start_ms, end_ms)) AS last_ms, bool_or(ours) AS ours FROM session;

-- When each provider was seen first, over all history that is kept. Columns: provider code, Unix ms. Parameter: $codes
-- (providers that the caller knows).
SELECT provider, min(start_ms) AS first_ms FROM session WHERE provider < $codes GROUP BY provider;

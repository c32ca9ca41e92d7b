-- Who says so of a provider, when verdicts came, and what steps made for those behind them.

-- Whose attempt it was. Empty: not known any more.
ALTER TABLE suspicion ADD COLUMN tenant TEXT NOT NULL DEFAULT '';
UPDATE suspicion SET tenant = coalesce((SELECT tenant FROM job WHERE job_id = CAST(suspicion.attempt AS INTEGER)), '');

ALTER TABLE verdict ADD COLUMN at_ms INTEGER NOT NULL DEFAULT 0;
UPDATE verdict SET at_ms = coalesce(json_extract(body, '$.at_ms'), 0) WHERE json_valid(body);
CREATE INDEX verdict_by_time ON verdict (job_id, at_ms);

-- [[digest, bytes], ...] as JSON. Empty: nothing.
ALTER TABLE step ADD COLUMN made TEXT NOT NULL DEFAULT '';

-- The last attempt to deliver the outcome of a job.
ALTER TABLE jobs ADD COLUMN webhook_attempted_at INTEGER;
ALTER TABLE jobs ADD COLUMN webhook_status INTEGER;
ALTER TABLE jobs ADD COLUMN webhook_error TEXT;

-- The last attempt to deliver the outcome of a job.
ALTER TABLE inference_server.jobs ADD COLUMN webhook_attempted_at BIGINT;
ALTER TABLE inference_server.jobs ADD COLUMN webhook_status BIGINT;
ALTER TABLE inference_server.jobs ADD COLUMN webhook_error TEXT;

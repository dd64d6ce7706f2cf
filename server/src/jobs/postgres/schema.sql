CREATE TABLE inference_server.jobs (
    -- The order of submission.
    seq BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id UUID NOT NULL UNIQUE,
    state TEXT NOT NULL,
    attempts BIGINT NOT NULL DEFAULT 0,
    max_attempts BIGINT NOT NULL,
    fence BIGINT NOT NULL DEFAULT 0,
    worker TEXT,
    lease_until BIGINT,
    -- When the job can be claimed; NULL once it can.
    due_at BIGINT,
    not_before BIGINT,
    ttl_ms BIGINT,
    expires_at BIGINT,
    started_at BIGINT,
    finished_at BIGINT,
    retained_since BIGINT,
    model TEXT NOT NULL,
    task TEXT NOT NULL,
    owner TEXT,
    priority BIGINT NOT NULL,
    label TEXT,
    idempotency_key TEXT,
    idempotency_digest TEXT,
    items BIGINT NOT NULL,
    items_done BIGINT NOT NULL DEFAULT 0,
    created_at BIGINT NOT NULL,
    error_code TEXT,
    error_message TEXT,
    -- Bytes of the request and the reply, while they are kept.
    request_bytes BIGINT NOT NULL,
    reply_bytes BIGINT NOT NULL DEFAULT 0,
    reply_status BIGINT,
    webhook_url TEXT,
    webhook_state TEXT,
    webhook_attempts BIGINT NOT NULL DEFAULT 0,
    webhook_fence BIGINT NOT NULL DEFAULT 0,
    webhook_due_at BIGINT
);

-- Compressing again what is usually compressed or random wastes time.
CREATE TABLE inference_server.requests (
    seq BIGINT PRIMARY KEY REFERENCES inference_server.jobs ON DELETE CASCADE,
    method TEXT NOT NULL,
    path TEXT NOT NULL,
    query TEXT,
    headers BYTEA NOT NULL,
    content_type TEXT,
    body BYTEA NOT NULL
);
ALTER TABLE inference_server.requests ALTER COLUMN body SET STORAGE EXTERNAL;

CREATE TABLE inference_server.replies (
    seq BIGINT PRIMARY KEY REFERENCES inference_server.jobs ON DELETE CASCADE,
    status BIGINT NOT NULL,
    headers BYTEA NOT NULL,
    content_type TEXT,
    body BYTEA NOT NULL
);
ALTER TABLE inference_server.replies ALTER COLUMN body SET STORAGE EXTERNAL;

CREATE UNIQUE INDEX jobs_idempotency ON inference_server.jobs (coalesce(owner, ''), idempotency_key)
    WHERE idempotency_key IS NOT NULL;
CREATE INDEX jobs_claimable ON inference_server.jobs (model, priority, seq)
    WHERE state = 'queued' AND lease_until IS NULL AND due_at IS NULL;
CREATE INDEX jobs_due ON inference_server.jobs (due_at) WHERE due_at IS NOT NULL;
CREATE INDEX jobs_leases ON inference_server.jobs (lease_until) WHERE lease_until IS NOT NULL;
CREATE INDEX jobs_expiry ON inference_server.jobs (expires_at) WHERE state = 'queued' AND expires_at IS NOT NULL;
CREATE INDEX jobs_retention ON inference_server.jobs (retained_since) WHERE retained_since IS NOT NULL;
CREATE INDEX jobs_deliveries ON inference_server.jobs (webhook_due_at) WHERE webhook_due_at IS NOT NULL;
CREATE INDEX jobs_depth ON inference_server.jobs (model, state, created_at) INCLUDE (items, request_bytes, reply_bytes);
CREATE INDEX jobs_labels ON inference_server.jobs (label, id) WHERE label IS NOT NULL;
CREATE INDEX jobs_owners ON inference_server.jobs (owner, id) WHERE owner IS NOT NULL;

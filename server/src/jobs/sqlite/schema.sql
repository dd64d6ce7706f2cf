CREATE TABLE jobs (
    -- The order of submission. Never reused.
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id BLOB NOT NULL UNIQUE,
    state TEXT NOT NULL,
    attempts INTEGER NOT NULL,
    max_attempts INTEGER NOT NULL,
    fence INTEGER NOT NULL,
    worker TEXT,
    lease_until INTEGER,
    -- When the job can be claimed; NULL once it can.
    due_at INTEGER,
    not_before INTEGER,
    ttl_ms INTEGER,
    expires_at INTEGER,
    started_at INTEGER,
    finished_at INTEGER,
    -- Begin of the retention. Unlike finished_at, it moves along when the clock jumps.
    retained_since INTEGER,
    model TEXT NOT NULL,
    task TEXT NOT NULL,
    owner TEXT,
    priority INTEGER NOT NULL,
    label TEXT,
    idempotency_key TEXT,
    idempotency_digest TEXT,
    items INTEGER NOT NULL,
    items_done INTEGER NOT NULL DEFAULT 0,
    created_at INTEGER NOT NULL,
    error_code TEXT,
    error_message TEXT,
    request_bytes INTEGER NOT NULL,
    reply_status INTEGER,
    webhook_url TEXT,
    webhook_state TEXT,
    webhook_attempts INTEGER NOT NULL DEFAULT 0,
    webhook_fence INTEGER NOT NULL DEFAULT 0,
    webhook_due_at INTEGER
) STRICT;

CREATE TABLE requests (
    seq INTEGER PRIMARY KEY REFERENCES jobs ON DELETE CASCADE,
    method TEXT NOT NULL,
    path TEXT NOT NULL,
    query TEXT,
    headers BLOB NOT NULL,
    content_type TEXT,
    body BLOB NOT NULL
) STRICT;

CREATE TABLE replies (
    seq INTEGER PRIMARY KEY REFERENCES jobs ON DELETE CASCADE,
    status INTEGER NOT NULL,
    headers BLOB NOT NULL,
    content_type TEXT,
    body BLOB NOT NULL
) STRICT;

CREATE UNIQUE INDEX jobs_idempotency ON jobs (ifnull(owner, ''), idempotency_key) WHERE idempotency_key IS NOT NULL;
CREATE INDEX jobs_claimable ON jobs (model, priority, seq) WHERE state = 'queued' AND lease_until IS NULL AND due_at IS NULL;
CREATE INDEX jobs_due ON jobs (due_at) WHERE due_at IS NOT NULL;
CREATE INDEX jobs_leases ON jobs (lease_until) WHERE lease_until IS NOT NULL;
CREATE INDEX jobs_expiry ON jobs (expires_at) WHERE state = 'queued' AND expires_at IS NOT NULL;
CREATE INDEX jobs_retention ON jobs (retained_since) WHERE retained_since IS NOT NULL;
CREATE INDEX jobs_deliveries ON jobs (webhook_due_at) WHERE webhook_due_at IS NOT NULL;
CREATE INDEX jobs_depth ON jobs (model, state, created_at, items);
CREATE INDEX jobs_labels ON jobs (label, id) WHERE label IS NOT NULL;
CREATE INDEX jobs_owners ON jobs (owner, id) WHERE owner IS NOT NULL;

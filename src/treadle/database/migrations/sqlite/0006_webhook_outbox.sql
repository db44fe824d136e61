-- Webhooks that are still to be delivered, each put in by the transaction that ended its run.
-- Runs are referred to by id only: a webhook outlives the thread or run that it tells of.
-- body is the JSON that is sent, but for the time of sending; attempts counts those that failed.
CREATE TABLE webhook_outbox (
    run_id TEXT NOT NULL PRIMARY KEY,
    target TEXT NOT NULL,
    body BLOB NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    due_at INTEGER NOT NULL
);
CREATE INDEX webhook_outbox_by_due ON webhook_outbox (due_at);

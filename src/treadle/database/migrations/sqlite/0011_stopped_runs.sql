-- Runs that were begun and wait for nothing but their end, however long the queue is.
CREATE INDEX runs_stopped ON runs (created_at, seq) WHERE status = 'pending' AND stop IS NOT NULL;

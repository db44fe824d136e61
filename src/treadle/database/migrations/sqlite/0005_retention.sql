-- Threads that were deleted, but whose rows in other tables are still being removed in pieces.
CREATE TABLE deleted_threads (
    thread_id TEXT PRIMARY KEY
) WITHOUT ROWID;

-- A new thread under such an id must not find them: they go at once.
CREATE TRIGGER threads_insert_afresh BEFORE INSERT ON threads
WHEN EXISTS (SELECT 1 FROM deleted_threads WHERE thread_id = NEW.thread_id) BEGIN
    DELETE FROM runs WHERE thread_id = NEW.thread_id;
    DELETE FROM events WHERE thread_id = NEW.thread_id;
    DELETE FROM checkpoints WHERE thread_id = NEW.thread_id;
    DELETE FROM checkpoint_values WHERE thread_id = NEW.thread_id;
    DELETE FROM checkpoint_writes WHERE thread_id = NEW.thread_id;
    DELETE FROM deleted_threads WHERE thread_id = NEW.thread_id;
END;

-- A thread whose older states were swept away (keep_latest) lives on without an end; once its
-- state changes, there is something to sweep again.
CREATE TRIGGER threads_update_expiry AFTER UPDATE OF state_updated_at ON threads
WHEN NEW.ttl_strategy = 'keep_latest' AND NEW.expires_at IS NULL BEGIN
    UPDATE threads
    SET expires_at = NEW.state_updated_at + CAST(NEW.ttl_minutes * 60000000 AS INTEGER)
    WHERE seq = NEW.seq;
END;

-- Up to where kept events were removed, always the oldest first: of a run, by the last event
-- that its own stream would send; of a thread (run_id is ''), by the last one of all.
CREATE TABLE trimmed_events (
    thread_id TEXT NOT NULL,
    run_id TEXT NOT NULL,
    until_id INTEGER NOT NULL,
    PRIMARY KEY (thread_id, run_id)
) WITHOUT ROWID;
CREATE INDEX trimmed_events_by_id ON trimmed_events (until_id);

CREATE TRIGGER threads_delete_trimmed AFTER DELETE ON threads BEGIN
    DELETE FROM trimmed_events WHERE thread_id = OLD.thread_id;
END;

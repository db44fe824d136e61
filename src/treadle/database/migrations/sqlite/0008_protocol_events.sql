-- Events of protocol v2 are numbered: seq counts those of a thread from 1 on. label names what an
-- event is of (a custom channel, an interrupt, a state), so that filters need not decode it;
-- params is JSON that stands beside its data.
ALTER TABLE events ADD COLUMN seq INTEGER;
ALTER TABLE events ADD COLUMN label TEXT NOT NULL DEFAULT '';
ALTER TABLE events ADD COLUMN params BLOB NOT NULL DEFAULT x'';
CREATE UNIQUE INDEX events_by_seq ON events (thread_id, seq) WHERE seq IS NOT NULL;

-- How far the events of a thread are numbered. It only grows, also where events are not kept.
CREATE TABLE event_counters (
    thread_id TEXT PRIMARY KEY,
    last_seq INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TRIGGER threads_delete_counter AFTER DELETE ON threads BEGIN
    DELETE FROM event_counters WHERE thread_id = OLD.thread_id;
END;

ALTER TABLE trimmed_events ADD COLUMN until_seq INTEGER NOT NULL DEFAULT 0;

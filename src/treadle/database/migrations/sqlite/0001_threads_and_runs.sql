CREATE TABLE threads (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    thread_id TEXT NOT NULL UNIQUE,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    state_updated_at INTEGER NOT NULL,
    metadata TEXT NOT NULL DEFAULT '{}',
    config TEXT NOT NULL DEFAULT '{}',
    status TEXT NOT NULL DEFAULT 'idle',
    state_values TEXT,
    interrupts TEXT,
    error TEXT,
    ttl_strategy TEXT,
    ttl_minutes REAL,
    expires_at INTEGER
);
CREATE INDEX threads_by_update ON threads (updated_at);
CREATE INDEX threads_by_creation ON threads (created_at);
CREATE INDEX threads_by_expiry ON threads (expires_at) WHERE expires_at IS NOT NULL;

-- The index behind filters on thread metadata: one label for each short scalar at the top level,
-- "key <unit separator> type value". Kept by triggers, used by SQLiteDialect.json_contains.
CREATE TABLE thread_labels (
    label TEXT NOT NULL,
    thread_seq INTEGER NOT NULL,
    PRIMARY KEY (label, thread_seq)
) WITHOUT ROWID;

CREATE TRIGGER threads_insert_labels AFTER INSERT ON threads WHEN NEW.metadata <> '{}' BEGIN
    INSERT OR IGNORE INTO thread_labels (label, thread_seq)
    SELECT key || char(31) || CASE type
               WHEN 'text' THEN 't' || value WHEN 'integer' THEN 'n' || value
               WHEN 'real' THEN 'n' || CAST(value AS INTEGER) ELSE type END, NEW.seq
    FROM json_each(NEW.metadata)
    WHERE type NOT IN ('object', 'array') AND (type <> 'real' OR value = CAST(value AS INTEGER))
      AND (type <> 'text' OR length(value) <= 200);
END;

CREATE TRIGGER threads_update_labels AFTER UPDATE OF metadata ON threads
WHEN OLD.metadata <> NEW.metadata BEGIN
    DELETE FROM thread_labels WHERE thread_seq = OLD.seq AND label IN (
        SELECT key || char(31) || CASE type
                   WHEN 'text' THEN 't' || value WHEN 'integer' THEN 'n' || value
                   WHEN 'real' THEN 'n' || CAST(value AS INTEGER) ELSE type END
        FROM json_each(OLD.metadata)
        WHERE type NOT IN ('object', 'array'));
    INSERT OR IGNORE INTO thread_labels (label, thread_seq)
    SELECT key || char(31) || CASE type
               WHEN 'text' THEN 't' || value WHEN 'integer' THEN 'n' || value
               WHEN 'real' THEN 'n' || CAST(value AS INTEGER) ELSE type END, NEW.seq
    FROM json_each(NEW.metadata)
    WHERE type NOT IN ('object', 'array') AND (type <> 'real' OR value = CAST(value AS INTEGER))
      AND (type <> 'text' OR length(value) <= 200);
END;

CREATE TRIGGER threads_delete_labels AFTER DELETE ON threads WHEN OLD.metadata <> '{}' BEGIN
    DELETE FROM thread_labels WHERE thread_seq = OLD.seq AND label IN (
        SELECT key || char(31) || CASE type
                   WHEN 'text' THEN 't' || value WHEN 'integer' THEN 'n' || value
                   WHEN 'real' THEN 'n' || CAST(value AS INTEGER) ELSE type END
        FROM json_each(OLD.metadata)
        WHERE type NOT IN ('object', 'array'));
END;

-- The processes that execute runs. One whose lease has ended has lost what it was executing.
CREATE TABLE workers (
    owner TEXT PRIMARY KEY,
    lease_until INTEGER NOT NULL
) WITHOUT ROWID;

-- created_at is the time at which a run is due; seq is the order in which runs were accepted.
-- attempt grows with every claim, and fences off the writes of earlier ones; handed_back counts
-- the claims that a worker gave back on purpose, which are no failures. stop is how a running run
-- was asked to end: it holds even if the worker is lost before it does.
CREATE TABLE runs (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    run_id TEXT NOT NULL UNIQUE,
    thread_id TEXT NOT NULL,
    assistant_id TEXT NOT NULL,
    graph_id TEXT NOT NULL,
    status TEXT NOT NULL DEFAULT 'pending',
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    metadata TEXT NOT NULL,
    kwargs TEXT NOT NULL,
    multitask_strategy TEXT NOT NULL,
    temporary INTEGER NOT NULL DEFAULT 0,
    attempt INTEGER NOT NULL DEFAULT 0,
    handed_back INTEGER NOT NULL DEFAULT 0,
    owner TEXT,
    stop TEXT,
    started_at INTEGER,
    error TEXT
);
CREATE INDEX runs_of_thread ON runs (thread_id, created_at, seq);
CREATE INDEX runs_in_flight ON runs (thread_id, status, created_at, seq)
    WHERE status IN ('pending', 'running');
CREATE INDEX runs_due ON runs (created_at, seq) WHERE status = 'pending';

-- Kept events of resumable runs. id is milliseconds << 20 | counter; it only grows on a thread.
CREATE TABLE events (
    thread_id TEXT NOT NULL,
    id INTEGER NOT NULL,
    run_id TEXT NOT NULL,
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    data BLOB NOT NULL,
    PRIMARY KEY (thread_id, id)
) WITHOUT ROWID;
CREATE INDEX events_of_run ON events (run_id);
CREATE INDEX events_by_id ON events (id);

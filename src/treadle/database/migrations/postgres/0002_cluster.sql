-- What processes that share this database tell each other about threads. All of it is about the
-- present: it need not outlive the server, so it is not logged.

-- The last event of a thread that no longer runs. Other processes, whose clocks may be behind,
-- go on from there.
ALTER TABLE threads ADD COLUMN last_event_id BIGINT NOT NULL DEFAULT 0;

-- Which process has readers of which thread. wants: 1 the ends of runs, 2 their events, 4 the
-- numbered ones.
CREATE UNLOGGED TABLE watches (
    thread_id TEXT COLLATE "C" NOT NULL,
    process TEXT COLLATE "C" NOT NULL,
    wants SMALLINT NOT NULL,
    until TIMESTAMPTZ NOT NULL,
    PRIMARY KEY (thread_id, process)
);
CREATE INDEX watches_of_process ON watches (process);

-- Events on their way from the process that executes a run (origin) to one that has readers.
-- number only grows for an origin.
CREATE UNLOGGED TABLE live_batches (
    target TEXT COLLATE "C" NOT NULL,
    origin TEXT COLLATE "C" NOT NULL,
    number BIGINT NOT NULL,
    data BYTEA NOT NULL,
    made_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    PRIMARY KEY (target, origin, number)
);
CREATE INDEX live_batches_by_age ON live_batches (made_at);

-- Threads on which a graph may still be at work although its run is no more (it was deleted) or
-- has ended without it. Other processes wait; a worker that has no lease keeps nobody waiting.
CREATE UNLOGGED TABLE leaving (
    thread_id TEXT COLLATE "C" NOT NULL,
    owner TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (thread_id, owner)
);

-- Each process keeps assistants in memory: all hear of it when one has changed.
CREATE FUNCTION assistants_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('treadle.' || left(md5(current_schema()), 12),
                      'database assistant ' || OLD.assistant_id);
    RETURN NULL;
END $$;
CREATE TRIGGER assistants_changed AFTER UPDATE OR DELETE ON assistants
FOR EACH ROW EXECUTE FUNCTION assistants_changed();

-- However claims of several processes cross each other: one run at a time on a thread.
CREATE UNIQUE INDEX runs_one_running ON runs (thread_id) WHERE status = 'running';

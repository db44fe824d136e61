-- Schedules that start runs. Times are microseconds: next_run_at is the tick that is to be started
-- next (NULL: none any more), scheduled_at the clock when that was worked out, ends_at end_time.
-- payload is what was sent; caller is who sent it, as JSON: the runs are theirs.
CREATE TABLE crons (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    cron_id TEXT NOT NULL UNIQUE,
    assistant_id TEXT NOT NULL,
    thread_id TEXT,
    user_id TEXT NOT NULL,
    caller TEXT NOT NULL,
    schedule TEXT NOT NULL,
    timezone TEXT,
    end_time TEXT,
    ends_at INTEGER,
    enabled INTEGER NOT NULL,
    on_run_completed TEXT,
    payload TEXT NOT NULL,
    metadata TEXT NOT NULL,
    next_run_at INTEGER,
    scheduled_at INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL
);
CREATE INDEX crons_due ON crons (next_run_at) WHERE enabled = 1;
CREATE INDEX crons_by_clock ON crons (scheduled_at);
CREATE INDEX crons_by_creation ON crons (created_at, seq);
CREATE INDEX crons_of_thread ON crons (thread_id) WHERE thread_id IS NOT NULL;
CREATE INDEX crons_of_assistant ON crons (assistant_id);

CREATE TRIGGER threads_delete_crons AFTER DELETE ON threads BEGIN
    DELETE FROM crons WHERE thread_id = OLD.thread_id;
END;

CREATE TRIGGER assistants_delete_crons AFTER DELETE ON assistants BEGIN
    DELETE FROM crons WHERE assistant_id = OLD.assistant_id;
END;

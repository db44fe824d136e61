-- Who is told how a task of A2A ends or what it asks: the address and what goes with it, as JSON.
-- start_id is the task's, from the metadata of its runs.
CREATE TABLE task_notifications (
    start_id TEXT NOT NULL,
    config_id TEXT NOT NULL,
    thread_id TEXT NOT NULL,
    config TEXT NOT NULL,
    PRIMARY KEY (start_id, config_id)
);
CREATE INDEX task_notifications_of_thread ON task_notifications (thread_id);

CREATE TRIGGER threads_delete_task_notifications AFTER DELETE ON threads BEGIN
    DELETE FROM task_notifications WHERE thread_id = OLD.thread_id;
END;

-- Headers of this delivery alone, as JSON; what has them is sent as it is. run_id tells
-- deliveries apart: that of a notification is no run's.
ALTER TABLE webhook_outbox ADD COLUMN headers TEXT;

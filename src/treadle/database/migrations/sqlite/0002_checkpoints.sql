-- Checkpoints as langgraph knows them. They refer to threads and runs by id only: a graph may
-- keep checkpoints under thread ids of its own making.
--
-- All three are rowid tables: their rows are often larger than what an index page holds, and a
-- WITHOUT ROWID table then pays for an overflow page in each row.

-- run_id: the run whose deletion takes the row along; a copied checkpoint has none.
CREATE TABLE checkpoints (
    thread_id TEXT NOT NULL,
    checkpoint_ns TEXT NOT NULL,
    checkpoint_id TEXT NOT NULL,
    parent_checkpoint_id TEXT,
    run_id TEXT,
    metadata TEXT NOT NULL,
    type TEXT NOT NULL,
    checkpoint BLOB NOT NULL,
    PRIMARY KEY (thread_id, checkpoint_ns, checkpoint_id)
);
CREATE INDEX checkpoints_of_run ON checkpoints (run_id) WHERE run_id IS NOT NULL;

-- What channels hold, once for each version. Small plain values are inside the checkpoint itself.
CREATE TABLE checkpoint_values (
    thread_id TEXT NOT NULL,
    checkpoint_ns TEXT NOT NULL,
    version TEXT NOT NULL,
    channel TEXT NOT NULL,
    type TEXT NOT NULL,
    value BLOB NOT NULL,
    PRIMARY KEY (thread_id, checkpoint_ns, version, channel)
);

-- run_id: only where a run writes to a checkpoint that it did not make itself.
CREATE TABLE checkpoint_writes (
    thread_id TEXT NOT NULL,
    checkpoint_ns TEXT NOT NULL,
    checkpoint_id TEXT NOT NULL,
    task_id TEXT NOT NULL,
    idx INTEGER NOT NULL,
    run_id TEXT,
    task_path TEXT NOT NULL,
    channel TEXT NOT NULL,
    type TEXT NOT NULL,
    value BLOB NOT NULL,
    PRIMARY KEY (thread_id, checkpoint_ns, checkpoint_id, task_id, idx)
);
CREATE INDEX checkpoint_writes_of_run ON checkpoint_writes (run_id) WHERE run_id IS NOT NULL;

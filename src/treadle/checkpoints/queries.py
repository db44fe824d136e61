"""The SQL of checkpoints, for both engines.

``{...}`` are conditions that the dialect writes. Values that an engine lacks a plan for are
never guessed: every statement here is answered by a primary key or by an index on ``run_id``.
"""

from __future__ import annotations

PUT_CHECKPOINT = """
INSERT INTO checkpoints (thread_id, checkpoint_ns, checkpoint_id, parent_checkpoint_id, run_id,
                         metadata, type, checkpoint)
VALUES (:thread_id, :checkpoint_ns, :checkpoint_id, :parent_checkpoint_id, :run_id,
        :metadata, :type, :checkpoint)
ON CONFLICT (thread_id, checkpoint_ns, checkpoint_id) DO UPDATE
SET parent_checkpoint_id = excluded.parent_checkpoint_id, run_id = excluded.run_id,
    metadata = excluded.metadata, type = excluded.type, checkpoint = excluded.checkpoint
"""

PUT_VALUE = """
INSERT INTO checkpoint_values (thread_id, checkpoint_ns, version, channel, type, value)
VALUES (:thread_id, :checkpoint_ns, :version, :channel, :type, :value)
ON CONFLICT (thread_id, checkpoint_ns, version, channel) DO UPDATE
SET type = excluded.type, value = excluded.value
"""

# The first of a task's ordinary writes stays; of its special ones (idx < 0) the last does.
# run_id stays too: deleting the later run must not take away what an earlier one has asked. But
# an answer that a command gives (of no task) is of the run whose command it is.
PUT_WRITE = """
INSERT INTO checkpoint_writes (thread_id, checkpoint_ns, checkpoint_id, task_id, idx, run_id,
                               task_path, channel, type, value)
VALUES (:thread_id, :checkpoint_ns, :checkpoint_id, :task_id, :idx, :run_id,
        :task_path, :channel, :type, :value)
ON CONFLICT (thread_id, checkpoint_ns, checkpoint_id, task_id, idx) DO UPDATE
SET task_path = excluded.task_path, channel = excluded.channel, type = excluded.type,
    value = excluded.value,
    run_id = CASE WHEN excluded.task_id = '00000000-0000-0000-0000-000000000000'
                  THEN excluded.run_id ELSE checkpoint_writes.run_id END
WHERE excluded.idx < 0
"""

WRITES_OF_COMMAND = """
SELECT channel FROM checkpoint_writes
WHERE thread_id = :thread_id AND checkpoint_ns = '' AND checkpoint_id = :checkpoint_id
  AND task_id = '00000000-0000-0000-0000-000000000000' AND run_id = :run_id
"""

_CHECKPOINT = """
SELECT thread_id, checkpoint_ns, checkpoint_id, parent_checkpoint_id, metadata, type, checkpoint
FROM checkpoints
"""

LATEST_CHECKPOINT = f"""{_CHECKPOINT}
WHERE thread_id = :thread_id AND checkpoint_ns = :checkpoint_ns
ORDER BY checkpoint_id DESC LIMIT 1
"""

CHECKPOINT = f"""{_CHECKPOINT}
WHERE thread_id = :thread_id AND checkpoint_ns = :checkpoint_ns
  AND checkpoint_id = :checkpoint_id
"""

IS_THERE = """
SELECT 1 FROM checkpoints
WHERE thread_id = :thread_id AND checkpoint_ns = :checkpoint_ns
  AND checkpoint_id = :checkpoint_id
"""

LIST_CHECKPOINTS = f"""{_CHECKPOINT}
WHERE {{conditions}}
ORDER BY checkpoint_id DESC, checkpoint_ns DESC, thread_id DESC LIMIT :limit
"""

VALUES = """
SELECT version, channel, type, value FROM checkpoint_values
WHERE thread_id = :thread_id AND checkpoint_ns = :checkpoint_ns AND {any_version}
"""

WRITES = """
SELECT checkpoint_id, task_id, channel, type, value FROM checkpoint_writes
WHERE thread_id = :thread_id AND checkpoint_ns = :checkpoint_ns AND {any_checkpoint}
ORDER BY checkpoint_id, task_path, task_id, idx
"""

WRITES_OF_CHECKPOINT = WRITES.format(any_checkpoint="checkpoint_id = :checkpoint_id")

# -- the history of delta channels ------------------------------------------------------------

# CROSS JOIN keeps SQLite from putting ``checkpoints`` outside; the depth ends a chain that bites
# its own tail (a checkpoint put again under one of its descendants).
ANCESTORS = """
WITH RECURSIVE chain (checkpoint_id, parent_checkpoint_id, depth) AS (
    SELECT checkpoint_id, parent_checkpoint_id, 0 FROM checkpoints
    WHERE thread_id = :thread_id AND checkpoint_ns = :checkpoint_ns
      AND checkpoint_id = :checkpoint_id
    UNION ALL
    SELECT c.checkpoint_id, c.parent_checkpoint_id, chain.depth + 1
    FROM chain CROSS JOIN checkpoints AS c
    WHERE c.thread_id = :thread_id AND c.checkpoint_ns = :checkpoint_ns
      AND c.checkpoint_id = chain.parent_checkpoint_id AND chain.depth + 1 < :most
)
SELECT c.checkpoint_id, c.parent_checkpoint_id, c.type, c.checkpoint
FROM chain CROSS JOIN checkpoints AS c
WHERE c.thread_id = :thread_id AND c.checkpoint_ns = :checkpoint_ns
  AND c.checkpoint_id = chain.checkpoint_id
ORDER BY chain.depth
"""

STORED_VERSIONS = """
SELECT version, channel FROM checkpoint_values
WHERE thread_id = :thread_id AND checkpoint_ns = :checkpoint_ns
  AND {any_version} AND {any_channel}
"""

VALUE = """
SELECT type, value FROM checkpoint_values
WHERE thread_id = :thread_id AND checkpoint_ns = :checkpoint_ns
  AND version = :version AND channel = :channel
"""

WRITES_TO_CHANNELS = WRITES.replace("ORDER BY", "AND {any_channel}\nORDER BY")

# -- which keys are needed --------------------------------------------------------------------

# How the latest checkpoints of the threads are written that were last at work.
LATEST_TYPES = """
SELECT DISTINCT type FROM (
    SELECT (SELECT c.type FROM checkpoints AS c
            WHERE c.thread_id = t.thread_id AND c.checkpoint_ns = ''
            ORDER BY c.checkpoint_id DESC LIMIT 1) AS type
    FROM (SELECT thread_id FROM threads ORDER BY updated_at DESC LIMIT 50) AS t) AS latest
WHERE type IS NOT NULL
"""

# -- upkeep -----------------------------------------------------------------------------------

TABLES = ("checkpoints", "checkpoint_values", "checkpoint_writes")

DELETE_THREAD = tuple(f"DELETE FROM {table} WHERE thread_id = :thread_id" for table in TABLES)

CHECKPOINTS_OF_THREAD = f"{_CHECKPOINT} WHERE thread_id = :thread_id"

CHECKPOINTS_OF_NAMESPACE = """
SELECT checkpoint_id, type, checkpoint FROM checkpoints
WHERE thread_id = :thread_id AND checkpoint_ns = :checkpoint_ns
"""

NAMESPACES = "SELECT DISTINCT checkpoint_ns FROM checkpoints WHERE thread_id = :thread_id"

# A copied checkpoint belongs to no run: deleting a run of the source must leave the copy alone.
COPY_THREAD = (
    """
INSERT INTO checkpoints (thread_id, checkpoint_ns, checkpoint_id, parent_checkpoint_id, run_id,
                         metadata, type, checkpoint)
SELECT :target, checkpoint_ns, checkpoint_id, parent_checkpoint_id, NULL,
       metadata, type, checkpoint
FROM checkpoints WHERE thread_id = :source
ON CONFLICT DO NOTHING
""",
    """
INSERT INTO checkpoint_values (thread_id, checkpoint_ns, version, channel, type, value)
SELECT :target, checkpoint_ns, version, channel, type, value
FROM checkpoint_values WHERE thread_id = :source
ON CONFLICT DO NOTHING
""",
    """
INSERT INTO checkpoint_writes (thread_id, checkpoint_ns, checkpoint_id, task_id, idx, run_id,
                               task_path, channel, type, value)
SELECT :target, checkpoint_ns, checkpoint_id, task_id, idx, NULL, task_path, channel, type, value
FROM checkpoint_writes WHERE thread_id = :source
ON CONFLICT DO NOTHING
""",
)

DELETE_CHECKPOINTS_OF_RUNS = """
DELETE FROM checkpoints WHERE {any_run} RETURNING thread_id, checkpoint_ns, checkpoint_id
"""

DELETE_WRITES_OF_RUNS = "DELETE FROM checkpoint_writes WHERE {any_run}"

DELETE_CHECKPOINT = """
DELETE FROM checkpoints
WHERE thread_id = :thread_id AND checkpoint_ns = :checkpoint_ns
  AND checkpoint_id = :checkpoint_id
"""

DELETE_WRITES = DELETE_CHECKPOINT.replace("FROM checkpoints", "FROM checkpoint_writes")

VERSIONS_OF_NAMESPACE = """
SELECT version, channel FROM checkpoint_values
WHERE thread_id = :thread_id AND checkpoint_ns = :checkpoint_ns
"""

DELETE_VALUE = """
DELETE FROM checkpoint_values
WHERE thread_id = :thread_id AND checkpoint_ns = :checkpoint_ns
  AND version = :version AND channel = :channel
"""

SIZE_OF_VALUES = """
SELECT channel, COUNT(*) AS versions, SUM(LENGTH(value)) AS bytes FROM checkpoint_values
WHERE thread_id = :thread_id GROUP BY channel
"""

SIZE_OF_WRITES = """
SELECT COUNT(*) AS count, COALESCE(SUM(LENGTH(value)), 0) AS bytes FROM checkpoint_writes
WHERE thread_id = :thread_id
"""

# The oldest first; more than stay are asked for, so that some of them can go.
OLDEST_CHECKPOINTS = """
SELECT checkpoint_id FROM checkpoints
WHERE thread_id = :thread_id AND checkpoint_ns = :checkpoint_ns
ORDER BY checkpoint_id LIMIT :limit
"""

OLDEST_VALUES = f"{VERSIONS_OF_NAMESPACE} ORDER BY version, channel LIMIT :limit"

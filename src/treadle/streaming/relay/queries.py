"""SQL of the relay between processes. It is PostgreSQL's alone: SQLite has one process."""

WATCH_SECONDS = 60

# The process wants to hear of a thread, from the commit on.
WATCH = f"""
INSERT INTO watches (thread_id, process, wants, until)
VALUES (:thread_id, :process, :wants, now() + interval '{WATCH_SECONDS} seconds')
ON CONFLICT (thread_id, process)
DO UPDATE SET wants = watches.wants | excluded.wants, until = excluded.until
"""

RENEW_WATCHES = f"""
UPDATE watches SET until = now() + interval '{WATCH_SECONDS} seconds' WHERE process = :process
RETURNING thread_id
"""

UNWATCH = "DELETE FROM watches WHERE process = :process AND thread_id = :thread_id"

UNWATCH_ALL = "DELETE FROM watches WHERE process = :process"

FORGET_WATCHES = "DELETE FROM watches WHERE until < now()"

WATCHERS = """
SELECT process, wants FROM watches WHERE thread_id = :thread_id AND process <> :process
"""

# Neither an end of a run nor a claim comes between this and the commit.
LOOK_AT_THREAD = """
SELECT greatest(last_event_id, (SELECT max(id) FROM events WHERE events.thread_id = t.thread_id))
    AS last_id
FROM threads AS t WHERE thread_id = :thread_id FOR SHARE OF t
"""

LOOK_AT_RUNS = """
SELECT run_id, status, owner FROM runs
WHERE thread_id = :thread_id AND status IN ('pending', 'running') FOR SHARE
"""

EXECUTOR = "SELECT owner FROM runs WHERE thread_id = :thread_id AND status = 'running'"

LAST_EVENT = LOOK_AT_THREAD.replace("FOR SHARE", "FOR UPDATE")

MOVE_ON = """
UPDATE threads SET last_event_id = greatest(last_event_id, :id) WHERE thread_id = :thread_id
"""

PUT_BATCH = """
INSERT INTO live_batches (target, origin, number, data) VALUES (:target, :origin, :number, :data)
"""

# To all that watch a thread, within the transaction that the batch tells of.
TELL_WATCHERS = """
WITH told AS (
    INSERT INTO live_batches (target, origin, number, data)
    SELECT process, :origin, :number, :data FROM watches
    WHERE thread_id = :thread_id AND process <> :origin
    RETURNING target)
SELECT pg_notify(:channel || '.' || target, :text) FROM told
"""

BATCHES = """
SELECT number, data FROM live_batches
WHERE target = :target AND origin = :origin AND number > :last ORDER BY number LIMIT :limit
"""

ORIGINS = "SELECT DISTINCT origin FROM live_batches WHERE target = :target"

FORGET_BATCHES = """
DELETE FROM live_batches WHERE target = :target AND origin = :origin AND number <= :last
"""

FORGET_OLD_BATCHES = """
DELETE FROM live_batches WHERE made_at < now() - interval '60 seconds'
"""

# Runs of a thread that have ended, for those who may have missed it.
ENDED_RUNS = """
SELECT run_id FROM runs WHERE thread_id = :thread_id AND status NOT IN ('pending', 'running')
ORDER BY updated_at DESC LIMIT 100
"""

THREAD_IS_THERE = "SELECT 1 FROM threads WHERE thread_id = :thread_id"

# Are all events of the thread's latest runs kept?
LATEST_RUN = """
SELECT kwargs FROM runs WHERE thread_id = :thread_id AND started_at IS NOT NULL
ORDER BY started_at DESC LIMIT 1
"""

RUN_BEFORE = LATEST_RUN.replace("AND", "AND run_id <> :run_id AND", 1)

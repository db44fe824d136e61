"""SQL of runs.

Whatever changes a thread's runs, or its row, locks the thread's row first and then the runs: so
transactions of several processes neither pass each other unseen nor wait for each other.
"""

from treadle.streaming.entries import ASIDE_BIT

THREAD_FOR_RUN = """
SELECT seq, thread_id, metadata, config, status, interrupts FROM threads
WHERE thread_id = :thread_id
"""

LOCK = "/*postgres FOR UPDATE*/"

LOCK_THREAD = f"SELECT 1 FROM threads WHERE thread_id = :thread_id {LOCK}"

# A run without a delay is due no earlier than those that were accepted before it, whose process
# may have had a clock that was ahead.
_LATEST = """(SELECT max(created_at) FROM runs
    WHERE thread_id = :thread_id AND status IN ('pending', 'running') AND created_at <= updated_at
        AND created_at > CAST(:created_at AS BIGINT)
        AND CAST(:created_at AS BIGINT) = CAST(:updated_at AS BIGINT))"""

INSERT_RUN = """
INSERT INTO runs (run_id, thread_id, assistant_id, graph_id, status, created_at, updated_at,
                  metadata, kwargs, multitask_strategy, temporary)
VALUES (:run_id, :thread_id, :assistant_id, :graph_id, 'pending',
        coalesce({latest}, :created_at), coalesce({latest}, :updated_at),
        :metadata, :kwargs, :multitask_strategy, :temporary)
""".replace("{latest}", _LATEST)

THREAD_TAKES_RUN = """
UPDATE threads SET status = 'busy', metadata = :metadata, config = :config, updated_at = :now
WHERE thread_id = :thread_id
"""

NAME_THREAD = "UPDATE threads SET metadata = :metadata WHERE thread_id = :thread_id"

IN_FLIGHT = f"""
SELECT run_id, status, attempt, temporary, graph_id, kwargs, owner FROM runs
WHERE thread_id = :thread_id AND status IN ('pending', 'running') ORDER BY created_at, seq {LOCK}
"""

RUN = "SELECT * FROM runs WHERE run_id = :run_id AND thread_id = :thread_id"

RUN_TO_CHANGE = f"{RUN} {LOCK}"

RUN_STATUS = """
SELECT status, error, temporary FROM runs WHERE run_id = :run_id AND thread_id = :thread_id
"""

LIST_RUNS = """
SELECT * FROM runs WHERE thread_id = :thread_id AND status = coalesce(:status, status)
ORDER BY created_at DESC, seq DESC LIMIT :limit OFFSET :offset
"""

# The queue. A worker that has a lease may start a run once it is due, nothing runs on its thread,
# and no run of the thread that is due earlier (or was accepted earlier for the same time) waits.
_CLAIM = """
WITH next AS (
    SELECT r.seq FROM runs AS r
    WHERE r.status = 'pending' AND r.created_at <= :now {skew} {which} /*any graph*/
      AND EXISTS (SELECT 1 FROM workers WHERE owner = :owner AND lease_until > :now)
      AND NOT EXISTS (
        SELECT 1 FROM runs AS o
        WHERE o.thread_id = r.thread_id AND o.status = 'running')
      AND NOT EXISTS (
        SELECT 1 FROM runs AS o
        WHERE o.thread_id = r.thread_id AND o.status = 'pending'
          AND (o.created_at < r.created_at
               OR (o.created_at = r.created_at AND o.seq < r.seq)))
    ORDER BY r.created_at, r.seq LIMIT :limit /*postgres FOR UPDATE SKIP LOCKED*/)
UPDATE runs SET status = 'running', attempt = attempt + 1, owner = :owner, started_at = :now,
                updated_at = :now
WHERE seq IN (SELECT seq FROM next)
RETURNING {elsewhere}
          seq, run_id, thread_id, assistant_id, graph_id, created_at, metadata, kwargs,
          multitask_strategy, temporary, started_at, attempt, owner,
          attempt - handed_back AS tries, stop
"""

# Where other processes have come to with the thread, and which of them have readers of it.
_ELSEWHERE = f"""/*postgres (
            SELECT greatest(last_event_id, (
                SELECT max(id) FROM events
                WHERE events.thread_id = t.thread_id AND id & {ASIDE_BIT} = 0))
            FROM threads AS t WHERE t.thread_id = runs.thread_id) AS last_event_id,
          (extract(epoch FROM clock_timestamp()) * 1000)::bigint << 20 AS floor_id,
          (SELECT string_agg(process || ' ' || wants, ',')
            FROM watches AS w WHERE w.thread_id = runs.thread_id) AS watchers,*/"""

# A run without a delay is due at once, also where the clock is behind that of its process. No graph
# of another process may be left on its thread.
_SKEW = """/*postgres + 3600000000
      AND (r.created_at <= :now OR r.created_at <= r.updated_at)
      AND NOT EXISTS (
        SELECT 1 FROM leaving AS l JOIN workers AS w ON w.owner = l.owner
        WHERE l.thread_id = r.thread_id AND l.owner <> :owner)*/"""

# A graph may be at work for a while without a run; see the migration. PostgreSQL only.
LEAVES = "INSERT INTO leaving (thread_id, owner) VALUES (:thread_id, :owner) ON CONFLICT DO NOTHING"

HAS_LEFT = "DELETE FROM leaving WHERE thread_id = :thread_id AND owner = :owner"

LEAVING = "SELECT thread_id FROM leaving WHERE owner = :owner"

FORGET_LEAVING = "DELETE FROM leaving WHERE owner NOT IN (SELECT owner FROM workers)"

ANY_GRAPH = "/*any graph*/"
"""Where a condition on ``r.graph_id`` goes: other processes may serve other graphs."""

CLAIM = _CLAIM.format(which="", elsewhere=_ELSEWHERE, skew=_SKEW)

# Runs that were begun and are to end.
CLAIM_STOPPED = _CLAIM.format(which="AND r.stop IS NOT NULL", elsewhere=_ELSEWHERE, skew=_SKEW)

# Leases. A run is its owner's as long as the owner's lease lasts.
TAKE_LEASE = """
INSERT INTO workers (owner, lease_until) VALUES (:owner, :until)
ON CONFLICT (owner) DO UPDATE SET lease_until = excluded.lease_until
"""

RENEW_LEASE = "UPDATE workers SET lease_until = :until WHERE owner = :owner"

END_LEASE = "DELETE FROM workers WHERE owner = :owner"

FORGET_LATE_WORKERS = "DELETE FROM workers WHERE lease_until <= :now AND owner <> :owner"

LATE_WORKER = "SELECT 1 FROM workers WHERE lease_until <= :now AND owner <> :owner LIMIT 1"

# A lease that ended before :now makes its worker late, and one that is not there.
RUNNING = """
SELECT runs.run_id, runs.owner, coalesce(workers.lease_until, 0) <= :now AS late
FROM runs LEFT JOIN workers ON workers.owner = runs.owner WHERE runs.status = 'running'
"""

LIVE_WORKERS = "SELECT owner FROM workers WHERE lease_until > :now"

TAKE_UP_RUN = """
UPDATE runs SET status = 'pending', owner = NULL, handed_back = handed_back + :innocent
WHERE run_id = :run_id AND status = 'running'
  AND (owner = :owner OR owner NOT IN (SELECT owner FROM workers))
"""

OWN_RUNS = "SELECT run_id, stop FROM runs WHERE owner = :owner AND status = 'running'"

ANY_DUE = "SELECT 1 FROM runs WHERE status = 'pending' AND created_at <= :now LIMIT 1"

HAND_BACK = """
UPDATE runs SET status = 'pending', owner = NULL, handed_back = handed_back + 1
WHERE run_id = :run_id AND attempt = :attempt AND status = 'running'
"""

TOUCH_THREAD = "UPDATE threads SET updated_at = :now WHERE thread_id = :thread_id"

# Ending a run: refused (no row) once the run belongs to another attempt.
END_RUN = """
UPDATE runs SET status = :status, error = :error, updated_at = :now
WHERE run_id = :run_id AND attempt = :attempt AND status = 'running'
"""

ANOTHER_IN_FLIGHT = """
SELECT 1 FROM runs WHERE thread_id = :thread_id AND status IN ('pending', 'running')
    AND assistant_id <> :assistant_id LIMIT 1
"""

OWNED = """
SELECT stop FROM runs WHERE run_id = :run_id AND attempt = :attempt AND status = 'running'
/*postgres FOR SHARE*/
"""

# Are there readers in other processes too?
_WATCHED = """/*postgres EXISTS (
    SELECT 1 FROM watches AS w WHERE w.thread_id = runs.thread_id AND w.process <> :process)
    AS watched,*/"""

# After a commit whose answer was lost: has the attempt still to end, or has it?
UNENDED = OWNED.replace("/*postgres FOR SHARE*/", "")

ENDED = """
SELECT threads.status FROM runs JOIN threads ON threads.thread_id = runs.thread_id
WHERE run_id = :run_id AND attempt = :attempt AND runs.status NOT IN ('pending', 'running')
"""

OWNED_TO_END = OWNED.replace("/*postgres FOR SHARE*/", LOCK).replace("stop", f"{_WATCHED} stop", 1)

# A rollback counts for more than an interrupt.
STOP_BEGUN = """
UPDATE runs SET stop = CASE WHEN stop = 'rollback' THEN stop ELSE :stop END
WHERE run_id = :run_id AND status IN ('pending', 'running')
"""

END_PENDING = """
UPDATE runs SET status = 'interrupted', updated_at = :now
WHERE run_id = :run_id AND status = 'pending'
"""

_STATUS_UNLESS_BUSY = """CASE WHEN EXISTS (
        SELECT 1 FROM runs WHERE runs.thread_id = threads.thread_id
            AND runs.status IN ('pending', 'running')) THEN 'busy' ELSE """

_MOVES_ON = "/*postgres last_event_id = greatest(last_event_id, :last_event_id),*/"

THREAD_AFTER_RUN = f"""
UPDATE threads SET
    status = {_STATUS_UNLESS_BUSY} :status END,
    state_values = CASE WHEN :keep THEN state_values ELSE :state_values END,
    interrupts = CASE WHEN :keep THEN coalesce(interrupts, '{{}}') ELSE :interrupts END,
    error = :error, {_MOVES_ON} updated_at = :now, state_updated_at = :now
WHERE thread_id = :thread_id RETURNING status
"""

THREAD_AS_BEFORE = f"""
UPDATE threads SET
    status = {_STATUS_UNLESS_BUSY}
        CASE WHEN coalesce(interrupts, '{{}}') = '{{}}' THEN 'idle' ELSE 'interrupted' END END,
    interrupts = coalesce(interrupts, '{{}}'), error = NULL, {_MOVES_ON}
    updated_at = :now, state_updated_at = :now
WHERE thread_id = :thread_id RETURNING status
"""

# A thread that nothing is in flight on any more goes back to what its last run left.
SETTLE_THREAD = """
UPDATE threads SET updated_at = :now, status = CASE
    WHEN error IS NOT NULL THEN 'error'
    WHEN coalesce(interrupts, '{}') <> '{}' THEN 'interrupted' ELSE 'idle' END
WHERE thread_id = :thread_id AND status = 'busy' AND NOT EXISTS (
    SELECT 1 FROM runs WHERE runs.thread_id = threads.thread_id
        AND runs.status IN ('pending', 'running'))
"""

THREAD_OUTCOME = "SELECT state_values, interrupts, error FROM threads WHERE thread_id = :thread_id"

DELETE_RUN = "DELETE FROM runs WHERE run_id = :run_id AND thread_id = :thread_id"
DELETE_RUN_EVENTS = "DELETE FROM events WHERE run_id = :run_id"

RUNS_BY_STATUS = """
SELECT run_id, thread_id, status, temporary FROM runs
WHERE status = :one OR status = :other ORDER BY created_at, seq
"""

VISIBLE_RUNS_BY_STATUS = """
SELECT run_id, thread_id, status, temporary FROM runs
WHERE (status = :one OR status = :other) AND EXISTS (
    SELECT 1 FROM threads WHERE threads.thread_id = runs.thread_id AND {visible})
ORDER BY created_at, seq
"""

IN_FLIGHT_WITH = """
SELECT runs.thread_id, runs.run_id FROM threads JOIN runs ON runs.thread_id = threads.thread_id
WHERE runs.status IN ('pending', 'running') AND {condition}
"""

THREAD_EXISTS = "SELECT 1 FROM threads WHERE thread_id = :thread_id"

DELETE_THREAD = (
    "DELETE FROM runs WHERE thread_id = :thread_id",
    "DELETE FROM events WHERE thread_id = :thread_id",
    "DELETE FROM threads WHERE thread_id = :thread_id",
)

# Runs without a delay wait for nothing; if the clock was set back while no server ran, they
# would wait for it, and who comes after them would not.
MAKE_DUE = """
UPDATE runs SET created_at = :now
WHERE status = 'pending' AND created_at > :now AND created_at <= updated_at
"""

PENDING_LATER = """
SELECT DISTINCT created_at FROM runs WHERE status = 'pending' AND created_at > :now
"""

CHECKPOINT = """
SELECT 1 FROM checkpoints WHERE thread_id = :thread_id AND checkpoint_ns = :checkpoint_ns
    AND checkpoint_id = :checkpoint_id
"""

"""SQL of the kept events."""

# Ids hold milliseconds times 2 ** 20. Those that were not kept are no later than their thread's
# last update, or the lease of a worker that has died; so ids grow even if the clock goes back.
LAST_EVENT_ID = """
SELECT max(id) AS id FROM (
    SELECT max(id) AS id FROM events
    UNION ALL SELECT max(until_id) FROM trimmed_events
    UNION ALL SELECT (max(updated_at) / 1000 + 1) * 1048576 FROM threads
    UNION ALL SELECT (max(lease_until) / 1000 + 1) * 1048576 FROM workers
        WHERE :alone = 1) AS last
"""

INSERT_EVENT = """
INSERT INTO events (thread_id, id, run_id, kind, name, data, seq, label, params)
VALUES (:thread_id, :id, :run_id, :kind, :name, :data, :seq, :label, :params)
"""

KEPT = "SELECT seq FROM events WHERE thread_id = :thread_id AND id = :id"

IS_ATTEMPT = """
SELECT 1 FROM runs WHERE run_id = :run_id AND attempt = :attempt /*postgres FOR KEY SHARE*/
"""

COUNT_ON = """
INSERT INTO event_counters (thread_id, last_seq) VALUES (:thread_id, :count)
ON CONFLICT (thread_id) DO UPDATE SET last_seq = event_counters.last_seq + excluded.last_seq
RETURNING last_seq
"""

LAST_SEQ = "SELECT last_seq FROM event_counters WHERE thread_id = :thread_id"

# As many rows as begin within :most_bytes; their data is read only once that is known. The page
# names the thread too: so each row is looked up by its whole key, whatever a planner believes of
# how many rows a thread has.
_REPLAY = """
WITH page (thread_id, id, begins_at) AS (
    SELECT thread_id, id, sum(bytes) OVER (ORDER BY {key}) - bytes FROM (
        SELECT thread_id, id, seq, length(data) AS bytes FROM events
        WHERE {whose} AND {key} > :after AND {key} <= :until ORDER BY {key} LIMIT :limit) AS sizes)
SELECT e.id, e.run_id, e.kind, e.name, e.data, e.seq, e.label, e.params
FROM page JOIN events AS e ON e.thread_id = page.thread_id AND e.id = page.id
WHERE page.begins_at < :most_bytes ORDER BY e.{key}
"""

REPLAY_THREAD = _REPLAY.format(whose="thread_id = :thread_id", key="id")

REPLAY_RUN = _REPLAY.format(whose="thread_id = :thread_id AND run_id = :run_id", key="id")

REPLAY_NUMBERED = _REPLAY.format(whose="thread_id = :thread_id", key="seq")

# Is any event of a run numbered already? An earlier attempt has told that it began.
IS_TOLD = "SELECT 1 FROM events WHERE run_id = :run_id AND seq IS NOT NULL LIMIT 1"

# Has a run asked for an answer?
IS_ASKED = """
SELECT 1 FROM events WHERE run_id = :run_id AND kind = :kind AND label = :interrupt_id
    AND (name = :name OR name LIKE :below) LIMIT 1
"""

# The states that the newest run on a thread, and the graphs in it, have gone through.
LAST_LIFECYCLE = """
SELECT name, data FROM events
WHERE kind = :kind AND (name = :name OR name LIKE :below) AND run_id = (
    SELECT run_id FROM events
    WHERE thread_id = :thread_id AND seq IS NOT NULL AND kind = :kind AND name = :name
    ORDER BY seq DESC LIMIT 1)
ORDER BY seq
"""

# -- retention --------------------------------------------------------------------------------

# A few look-ups in the index for each run that has events, however many these are. Events whose
# run is no more go by their own age.
OVER = """
WITH RECURSIVE kept (run_id) AS (
    SELECT min(run_id) FROM events
    UNION ALL
    SELECT (SELECT min(e.run_id) FROM events AS e WHERE e.run_id > kept.run_id)
    FROM kept WHERE kept.run_id IS NOT NULL
)
SELECT kept.run_id, runs.run_id IS NOT NULL AS is_known, (
    SELECT min(e.thread_id) FROM events AS e WHERE e.run_id = kept.run_id) AS thread_id
FROM kept LEFT JOIN runs ON runs.run_id = kept.run_id
WHERE kept.run_id IS NOT NULL AND (
    (runs.run_id IS NULL AND EXISTS (
        SELECT 1 FROM events AS e WHERE e.run_id = kept.run_id AND e.id <= :until))
    OR (runs.status NOT IN ('pending', 'running') AND runs.updated_at <= :ended))
"""

OLDEST_OF_RUN = """
SELECT thread_id, id, run_id, kind, coalesce(seq, 0) AS seq FROM events
WHERE run_id = :run_id AND thread_id = :thread_id AND id <= :until ORDER BY id LIMIT :limit
"""

TOO_LARGE = """
SELECT thread_id FROM events
GROUP BY thread_id HAVING sum(length(data) + :row_bytes) > :max_bytes
"""

# The newest event that a thread has no more room for.
CUT = """
SELECT max(id) AS id FROM (
    SELECT id, sum(length(data) + :row_bytes) OVER (ORDER BY id DESC) AS bytes
    FROM events WHERE thread_id = :thread_id) AS summed
WHERE bytes > :max_bytes
"""

OLDEST_OF_THREAD = """
SELECT thread_id, id, run_id, kind, coalesce(seq, 0) AS seq FROM events
WHERE thread_id = :thread_id AND id <= :until ORDER BY id LIMIT :limit
"""

DELETE_EVENT = "DELETE FROM events WHERE thread_id = :thread_id AND id = :id"

MARK_TRIMMED = """
INSERT INTO trimmed_events (thread_id, run_id, until_id, until_seq)
SELECT thread_id, :run_id, :until_id, :until_seq FROM threads WHERE thread_id = :thread_id
ON CONFLICT (thread_id, run_id) DO UPDATE SET
    until_id = excluded.until_id,
    until_seq = CASE WHEN excluded.until_seq > trimmed_events.until_seq
        THEN excluded.until_seq ELSE trimmed_events.until_seq END
WHERE excluded.until_id > trimmed_events.until_id
"""

TRIMMED_UNTIL = """
SELECT until_id, until_seq FROM trimmed_events WHERE thread_id = :thread_id AND run_id = :run_id
"""

"""SQL of the webhook outbox."""

PUT = """
INSERT INTO webhook_outbox (run_id, target, body, headers, due_at)
VALUES (:run_id, :target, :body, :headers, :now)
"""

EARLIEST = "SELECT run_id, due_at FROM webhook_outbox ORDER BY due_at LIMIT :limit"

ENTRY = "SELECT target, body, headers, attempts FROM webhook_outbox WHERE run_id = :run_id"

# For a while no other process delivers it.
TAKE = """
UPDATE webhook_outbox SET due_at = :until WHERE run_id = :run_id AND due_at <= :now
RETURNING target, body, headers, attempts
"""

GIVE_BACK = "UPDATE webhook_outbox SET due_at = :now WHERE run_id = :run_id"

REMOVE = "DELETE FROM webhook_outbox WHERE run_id = :run_id"

PUT_OFF = """
UPDATE webhook_outbox SET attempts = :attempts, due_at = :due_at WHERE run_id = :run_id
"""

"""The SQL of the store, by name."""

from __future__ import annotations

_COLUMNS = "namespace, key, value, created_at, updated_at, ttl_minutes"
ALIVE = "(expires_at IS NULL OR expires_at > :now)"
WITHIN = "(namespace = :prefix OR (namespace > :prefix_dot AND namespace < :prefix_end))"
AFTER = "(updated_at, namespace, key) < (:last_update, :last_namespace, :last_key)"

GET = f"SELECT {_COLUMNS} FROM store_items WHERE namespace = :namespace AND key = :key AND {ALIVE}"

PUT = """
INSERT INTO store_items (namespace, key, value, created_at, updated_at, ttl_minutes, expires_at)
VALUES (:namespace, :key, :value, :now, :now, :ttl_minutes, :expires_at)
ON CONFLICT (namespace, key) DO UPDATE SET
    value = excluded.value, updated_at = excluded.updated_at,
    ttl_minutes = excluded.ttl_minutes, expires_at = excluded.expires_at,
    created_at = CASE WHEN store_items.expires_at <= :now
                 THEN excluded.created_at ELSE store_items.created_at END
"""

DELETE = "DELETE FROM store_items WHERE namespace = :namespace AND key = :key"

EXTEND = """
UPDATE store_items SET expires_at = :expires_at
WHERE namespace = :namespace AND key = :key AND ttl_minutes IS NOT NULL
"""

SEARCH = f"""
SELECT {_COLUMNS} FROM store_items WHERE {{where}}
ORDER BY updated_at DESC, namespace DESC, key DESC LIMIT :limit OFFSET :offset
"""

NAMESPACES = "SELECT DISTINCT namespace FROM store_items WHERE {where}"

EXPIRED = "SELECT namespace, key FROM store_items WHERE expires_at <= :now LIMIT :limit"

# -- vectors: those of an item go with it, and with its value ---------------------------------

INSERT_VECTOR = """
INSERT INTO store_vectors (namespace, key, position, dims, vector)
VALUES (:namespace, :key, :position, :dims, :vector)
"""

DELETE_OTHER_DIMS = "DELETE FROM store_vectors WHERE dims <> :dims"

# The items by the best of their vectors, then those that have none.
RANKED = f"""
WITH best AS (
    SELECT namespace AS best_namespace, key AS best_key, MIN({{distance}}) AS distance
    FROM store_vectors WHERE {{within}} GROUP BY namespace, key)
SELECT {_COLUMNS}, distance FROM store_items
LEFT JOIN best ON best_namespace = namespace AND best_key = key
WHERE {{where}}
ORDER BY CASE WHEN distance IS NULL THEN 1 ELSE 0 END, distance,
         updated_at DESC, namespace DESC, key DESC
LIMIT :limit OFFSET :offset
"""

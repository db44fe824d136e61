"""The SQL of assistants, by name."""

from __future__ import annotations

INSERT = """
INSERT INTO assistants (assistant_id, graph_id, version, name, name_folded, description,
                        config, context, metadata, created_at, updated_at)
VALUES (:assistant_id, :graph_id, 1, :name, :name_folded, :description,
        :config, :context, :metadata, :now, :now)
ON CONFLICT (assistant_id) DO NOTHING
RETURNING *
"""

INSERT_VERSION = """
INSERT INTO assistant_versions (assistant_id, version, graph_id, name, description,
                                config, context, metadata, created_at)
VALUES (:assistant_id, :version, :graph_id, :name, :description,
        :config, :context, :metadata, :now)
"""

GET = "SELECT * FROM assistants WHERE assistant_id = :assistant_id AND {visible}"

NEWEST_VERSION = """
SELECT MAX(version) AS version FROM assistant_versions WHERE assistant_id = :assistant_id
"""

GET_VERSION = """
SELECT * FROM assistant_versions WHERE assistant_id = :assistant_id AND version = :version
"""

UPDATE = """
UPDATE assistants
SET graph_id = :graph_id, version = :version, name = :name, name_folded = :name_folded,
    description = :description, config = :config, context = :context, metadata = :metadata,
    updated_at = :now
WHERE assistant_id = :assistant_id
RETURNING *
"""

DESCRIBE_UNCHANGED = """
UPDATE assistants SET description = :description, config = :config, context = :context
WHERE assistant_id = :assistant_id AND version = 1
  AND NOT EXISTS (SELECT 1 FROM assistant_versions
                  WHERE assistant_id = :assistant_id AND version > 1)
"""

DESCRIBE_FIRST_VERSION = """
UPDATE assistant_versions SET description = :description, config = :config, context = :context
WHERE assistant_id = :assistant_id AND version = 1
"""

DELETE = "DELETE FROM assistants WHERE assistant_id = :assistant_id"

DELETE_VERSIONS = "DELETE FROM assistant_versions WHERE assistant_id = :assistant_id"

SEARCH = """
SELECT * FROM assistants WHERE {where} ORDER BY {order} LIMIT :limit OFFSET :offset
"""

COUNT = "SELECT COUNT(*) AS n FROM assistants WHERE {where}"

VERSIONS = """
SELECT * FROM assistant_versions
WHERE assistant_id = :assistant_id AND {where}
ORDER BY version DESC LIMIT :limit OFFSET :offset
"""

THREADS = "SELECT thread_id FROM threads WHERE {where}"

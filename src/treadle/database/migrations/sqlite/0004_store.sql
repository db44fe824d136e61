-- Items of the store. A namespace is its labels joined with dots, which labels cannot hold.
CREATE TABLE store_items (
    namespace TEXT NOT NULL,
    key TEXT NOT NULL,
    value TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    ttl_minutes REAL,
    expires_at INTEGER,
    PRIMARY KEY (namespace, key)
);
CREATE INDEX store_items_by_update ON store_items (updated_at, namespace, key);
CREATE INDEX store_items_by_expiry ON store_items (expires_at) WHERE expires_at IS NOT NULL;

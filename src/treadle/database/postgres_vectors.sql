-- What store items mean, by pgvector: made when a config has store.index. See SQLite's migration.
CREATE EXTENSION IF NOT EXISTS vector;

CREATE TABLE IF NOT EXISTS store_vectors (
    namespace TEXT COLLATE "C" NOT NULL,
    key TEXT COLLATE "C" NOT NULL,
    position INTEGER NOT NULL,
    dims INTEGER NOT NULL,
    vector vector NOT NULL,
    PRIMARY KEY (namespace, key, position)
);

CREATE OR REPLACE FUNCTION store_items_forget_vectors() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM store_vectors WHERE namespace = OLD.namespace AND key = OLD.key;
    RETURN NULL;
END $$;

CREATE OR REPLACE TRIGGER store_items_delete_vectors AFTER DELETE ON store_items
FOR EACH ROW EXECUTE FUNCTION store_items_forget_vectors();

CREATE OR REPLACE TRIGGER store_items_replace_vectors AFTER UPDATE OF value ON store_items
FOR EACH ROW EXECUTE FUNCTION store_items_forget_vectors();

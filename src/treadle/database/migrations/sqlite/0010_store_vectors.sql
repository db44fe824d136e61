-- What store items mean: a vector of length one for each text of an item, as 32-bit floats.
CREATE TABLE store_vectors (
    namespace TEXT NOT NULL,
    key TEXT NOT NULL,
    position INTEGER NOT NULL,
    dims INTEGER NOT NULL,
    vector BLOB NOT NULL,
    PRIMARY KEY (namespace, key, position)
);

CREATE TRIGGER store_items_delete_vectors AFTER DELETE ON store_items BEGIN
    DELETE FROM store_vectors WHERE namespace = OLD.namespace AND key = OLD.key;
END;

-- A new value has new vectors, or none if nothing is indexed by meaning any more.
CREATE TRIGGER store_items_replace_vectors AFTER UPDATE OF value ON store_items BEGIN
    DELETE FROM store_vectors WHERE namespace = OLD.namespace AND key = OLD.key;
END;

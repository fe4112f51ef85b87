\set id random(1, 10000)
DELETE FROM keyed WHERE id = :id;
INSERT INTO keyed (id, v) VALUES (:id, 0) ON CONFLICT DO NOTHING;

\set id random(1, 20000)
INSERT INTO keyed (id, v) VALUES (:id, 1) ON CONFLICT (id) DO UPDATE SET v = keyed.v + 1;

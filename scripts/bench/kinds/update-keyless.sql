\set id random(1, 10000)
UPDATE keyless SET v = v + 1 WHERE id = :id;

\set id random(1, 50)
\set x random(1, 1000000)
BEGIN;
UPDATE hot SET v = (v * 31 + :x) % 1000003 WHERE id = :id;
INSERT INTO seqt (x) VALUES (:x);
COMMIT;

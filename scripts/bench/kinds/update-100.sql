\set id 100 * random(0, 99)
UPDATE keyed SET v = v + 1 WHERE id > :id AND id <= :id + 100;

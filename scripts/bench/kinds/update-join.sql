\set id random(1, 10000)
UPDATE keyed SET v = keyed.v + steps.n FROM steps WHERE keyed.id = :id AND steps.id = keyed.id % 10;

\set id random(1, 10000)
\set away 0 - :id
UPDATE keyed SET id = :away WHERE id = :id;
UPDATE keyed SET id = :id WHERE id = :away;

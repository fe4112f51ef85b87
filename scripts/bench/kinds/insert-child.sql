\set id random(1, 10000)
INSERT INTO children (parent) VALUES (:id);

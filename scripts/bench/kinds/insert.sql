\set x random(1, 1000000)
INSERT INTO entries (x) VALUES (:x);

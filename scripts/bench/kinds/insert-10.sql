\set x random(1, 1000000)
INSERT INTO entries (x) VALUES (:x), (1), (2), (3), (4), (5), (6), (7), (8), (9);

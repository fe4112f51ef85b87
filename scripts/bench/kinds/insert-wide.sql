\set x random(1, 1000000)
INSERT INTO entries (x, note) VALUES (:x, repeat('0123456789abcdef', 128));

-- Beside pgbench's own tables: what order.sql writes.
CREATE TABLE hot (id int PRIMARY KEY, v bigint NOT NULL);
INSERT INTO hot SELECT id, id FROM generate_series(1, 50) AS id;
CREATE TABLE seqt (id bigserial PRIMARY KEY, x bigint NOT NULL);

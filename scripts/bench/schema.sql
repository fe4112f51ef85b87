-- Beside pgbench's own tables: what order.sql writes.
CREATE TABLE hot (id int PRIMARY KEY, v bigint NOT NULL);
INSERT INTO hot SELECT id, id FROM generate_series(1, 50) AS id;
CREATE TABLE seqt (id bigserial PRIMARY KEY, x bigint NOT NULL);
-- What kinds/*.sql write.
CREATE TABLE entries (id bigserial PRIMARY KEY, x bigint NOT NULL, note text);
CREATE TABLE keyed (id int PRIMARY KEY, v bigint NOT NULL);
INSERT INTO keyed SELECT id, 0 FROM generate_series(1, 10000) AS id;
CREATE TABLE children (id bigserial PRIMARY KEY, parent int NOT NULL REFERENCES keyed);
CREATE TABLE steps (id int PRIMARY KEY, n int NOT NULL);
INSERT INTO steps SELECT id, id + 1 FROM generate_series(0, 9) AS id;
CREATE TABLE keyless (id int, v bigint NOT NULL);
INSERT INTO keyless SELECT id, 0 FROM generate_series(1, 10000) AS id;
CREATE INDEX ON keyless (id);
CREATE TABLE touched (id int PRIMARY KEY, v bigint NOT NULL, at timestamptz);
INSERT INTO touched SELECT id, 0 FROM generate_series(1, 10000) AS id;
CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.at := now(); RETURN NEW; END';
CREATE TRIGGER touch BEFORE UPDATE ON touched FOR EACH ROW EXECUTE FUNCTION touch();
CREATE TABLE divided (id int PRIMARY KEY, v bigint NOT NULL) PARTITION BY RANGE (id);
CREATE TABLE divided_1 PARTITION OF divided FOR VALUES FROM (MINVALUE) TO (5001);
CREATE TABLE divided_2 PARTITION OF divided FOR VALUES FROM (5001) TO (MAXVALUE);
INSERT INTO divided SELECT id, 0 FROM generate_series(1, 10000) AS id;
CREATE TABLE jobs (id int PRIMARY KEY, taken bigint NOT NULL);
INSERT INTO jobs SELECT id, 0 FROM generate_series(1, 1000) AS id;
CREATE INDEX ON jobs (taken);

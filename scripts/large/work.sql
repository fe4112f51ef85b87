\set w random(1, :warehouses)
\set d random(1, 10)
\set c random(1, 3000)
\set i1 random(1, 50000)
\set i2 random(50001, 100000)
\set p random(1, 50000)
\set doc random(1, :documents)
BEGIN;
UPDATE district SET d_next_o_id = d_next_o_id + 1 WHERE d_w_id = :w AND d_id = :d RETURNING d_next_o_id - 1 AS o \gset
INSERT INTO orders VALUES (:w, :d, :o, :c, now(), 2);
INSERT INTO new_order VALUES (:w, :d, :o);
INSERT INTO order_line VALUES (:w, :d, :o, 1, :i1, 5, 1.5, 'x'), (:w, :d, :o, 2, :i2, 5, 2.5, 'y');
UPDATE stock SET s_quantity = s_quantity - 1, s_ytd = s_ytd + 5 WHERE s_w_id = :w AND s_i_id = :i1;
UPDATE stock SET s_quantity = s_quantity - 1, s_ytd = s_ytd + 5 WHERE s_w_id = :w AND s_i_id = :i2;
END;
BEGIN;
UPDATE warehouse SET w_ytd = w_ytd + 5 WHERE w_id = :w;
UPDATE customer SET c_balance = c_balance - 5 WHERE c_w_id = :w AND c_d_id = :d AND c_id = :c;
INSERT INTO history VALUES (:c, :w, now(), 5, 'payment');
END;
INSERT INTO events (at, kind, data) VALUES (now(), :d, '{"live": true}');
INSERT INTO journal VALUES (now(), 'live', 'x', :c);
UPDATE documents SET kind = 'k' || :d, meta = '{"changed": 1}' WHERE id = :doc;
UPDATE parent SET v = v + 1 WHERE id = :p;
DELETE FROM new_order WHERE no_w_id = :w AND no_d_id = :d AND no_o_id = :c;

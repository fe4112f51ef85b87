#!/bin/sh
# psql with its default settings. Where to connect: PGHOST, PGPORT, PGUSER, PGPASSWORD, PGDATABASE; PSQL names the program.
set -eu
psql=${PSQL:-psql}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

run() { "$psql" -X -A -t -q -v ON_ERROR_STOP=1 "$@"; }
check() { # check WHAT GOT EXPECTED
    if [ "$2" != "$3" ]; then
        printf '%s: got "%s", expected "%s"\n' "$1" "$2" "$3" >&2
        exit 1
    fi
}

run >"$work/made" 2>&1 <<'SQL' || { cat "$work/made"; exit 1; }
SET client_min_messages = warning;
DROP TABLE IF EXISTS psql_item, psql_value, psql_copy, psql_execute;
CREATE TABLE psql_item (id serial PRIMARY KEY, v int NOT NULL UNIQUE);
CREATE TABLE psql_copy (v int PRIMARY KEY);
CREATE TABLE psql_execute (v int PRIMARY KEY);
CREATE TABLE psql_value (id bigint PRIMARY KEY, n numeric, ints int[], texts text[], j jsonb, t timestamptz, b bytea);
SQL

# prepared in SQL, executed more than five times in one session
got=$(
    {
        echo "PREPARE put AS INSERT INTO psql_execute (v) VALUES (\$1) RETURNING v;"
        for v in 0 1 2 3 4 5 6 7 8 9 10 11; do echo "EXECUTE put ($v);"; done
    } | run | tr '\n' ' '
)
check "EXECUTE" "$got" "0 1 2 3 4 5 6 7 8 9 10 11 "

# values
got=$(run <<'SQL'
SET TimeZone = 'UTC';
INSERT INTO psql_value VALUES (1099511627776, 12345678901234567890.000100, '{1,NULL,3}', ARRAY['a', NULL, 'b"c,{}'],
    '{"a": [1, 2.5, null]}', '2024-02-29 23:59:59.123456+00', '\x00ff5c78') RETURNING id;
SELECT * FROM psql_value;
SQL
)
check "values" "$got" '1099511627776
1099511627776|12345678901234567890.000100|{1,NULL,3}|{a,NULL,"b\"c,{}"}|{"a": [1, 2.5, null]}|2024-02-29 23:59:59.123456+00|\x00ff5c78'

# commit, savepoint, rollback
run <<'SQL' 2>/dev/null
\set ON_ERROR_STOP off
BEGIN;
INSERT INTO psql_item (v) VALUES (100);
SAVEPOINT s;
INSERT INTO psql_item (v) VALUES (100);
ROLLBACK TO SAVEPOINT s;
INSERT INTO psql_item (v) VALUES (102);
COMMIT;
BEGIN;
DELETE FROM psql_item;
ROLLBACK;
SQL
got=$(run -c "SELECT v FROM psql_item WHERE v BETWEEN 100 AND 199 ORDER BY v" | tr '\n' ' ')
check "savepoint and rollback" "$got" "100 102 "
# several statements in one simple query are one transaction
if run -c "INSERT INTO psql_item (v) VALUES (103); INSERT INTO psql_item (v) VALUES (100)" 2>"$work/error"; then
    check "a duplicate key" accepted refused
fi
check "message" "$(grep -c 'duplicate key value violates unique constraint "psql_item_v_key"' "$work/error")" 1
check "one transaction" "$(run -c "SELECT count(*) FROM psql_item WHERE v = 103")" 0

# COPY, both ways
seq 200 299 >"$work/in"
run -c "\\copy psql_copy (v) from '$work/in'"
run -c "\\copy (SELECT v FROM psql_copy WHERE v BETWEEN 200 AND 299 ORDER BY v) to '$work/out'"
cmp "$work/in" "$work/out"
{ echo "COPY psql_copy (v) FROM STDIN;"; seq 300 309; echo '\.'; echo "SELECT count(*) FROM psql_copy WHERE v BETWEEN 300 AND 309;"; } | run >"$work/out"
check "COPY in a script" "$(cat "$work/out")" 10

# a cursor behind FETCH_COUNT, and a statement that is only described
got=$(run -v FETCH_COUNT=7 -c "SELECT 1" -c "SELECT g FROM generate_series(1, 50) g" | tail -n 1)
check "FETCH_COUNT" "$got" 50
got=$(printf 'SELECT id, v FROM psql_item \\gdesc\n' | run | tr '\n' ' ')
check "gdesc" "$got" "id|integer v|integer "

# cancel: psql sends the request on SIGINT.
"$psql" -X -c "SELECT pg_sleep(30)" >"$work/cancelled" 2>&1 &
sleeper=$!
cancelled=
for _ in 1 2 3 4 5 6 7 8 9 10; do
    sleep 0.5
    kill -INT "$sleeper" 2>/dev/null || { cancelled=yes && break; }
done
if [ -z "$cancelled" ]; then kill -KILL "$sleeper"; fi
wait "$sleeper" 2>/dev/null || true
check "cancel" "$(grep -c 'canceling statement due to user request' "$work/cancelled")" 1

# LISTEN and NOTIFY between two sessions
mkfifo "$work/fifo"
run <"$work/fifo" >"$work/heard" 2>&1 &
listener=$!
exec 3>"$work/fifo"
echo "LISTEN psql; SELECT 'listening';" >&3
tries=0
until grep -q listening "$work/heard"; do
    tries=$((tries + 1))
    [ "$tries" -lt 100 ] || check "LISTEN" "$(cat "$work/heard")" "listening"
    sleep 0.1
done
run -c "NOTIFY psql, 'hello'"
echo "SELECT 1;" >&3
exec 3>&-
wait "$listener"
check "notification" "$(grep -c 'Asynchronous notification "psql" with payload "hello" received' "$work/heard")" 1

# an error leaves the session usable
got=$(printf '\\set ON_ERROR_STOP off\nSELECT 1/0;\nSELECT 1;\n' | run 2>/dev/null)
check "after an error" "$got" 1
echo ok

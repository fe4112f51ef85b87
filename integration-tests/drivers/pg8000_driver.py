"""pg8000 with its default settings. Where to connect: PGHOST, PGPORT, PGUSER, PGPASSWORD, PGDATABASE."""
import datetime
import decimal
import io
import os

import pg8000.dbapi
import pg8000.native


def check(what, got, expected):
    if got != expected:
        raise SystemExit(f"{what}: got {got!r}, expected {expected!r}")


PLACE = {
    "host": os.environ["PGHOST"],
    "port": int(os.environ["PGPORT"]),
    "user": os.environ["PGUSER"],
    "password": os.environ["PGPASSWORD"],
    "database": os.environ["PGDATABASE"],
}

connection = pg8000.native.Connection(**PLACE)
run = connection.run
run("SET TimeZone = 'UTC'")
run("DROP TABLE IF EXISTS pg8000_item, pg8000_value, pg8000_copy")
run("CREATE TABLE pg8000_item (id serial PRIMARY KEY, v int NOT NULL UNIQUE)")
run("CREATE TABLE pg8000_copy (v int PRIMARY KEY)")
run("CREATE TABLE pg8000_value (id bigint PRIMARY KEY, n numeric, ints int[], j jsonb, t timestamptz, b bytea)")

# values
row = [
    2**40,
    decimal.Decimal("12345678901234567890.000100"),
    [1, None, 3],
    {"a": [1, 2.5, None], "b": "ü"},
    datetime.datetime(2024, 2, 29, 23, 59, 59, 123456, tzinfo=datetime.timezone.utc),
    b"\x00\xff\\x",
]
got = run(
    "INSERT INTO pg8000_value VALUES (:id, :n, :ints, :j, :t, :b) RETURNING id",
    id=row[0], n=row[1], ints=row[2], j=row[3], t=row[4], b=row[5],
)
check("RETURNING", got, [[row[0]]])
check("values", run("SELECT * FROM pg8000_value"), [row])

# a prepared statement
statement = connection.prepare("INSERT INTO pg8000_item (v) VALUES (:v) RETURNING v")
for number in range(12):
    check("prepared", statement.run(v=number), [[number]])
statement.close()

# commit, rollback, savepoint, error
run("START TRANSACTION")
run("INSERT INTO pg8000_item (v) VALUES (:v)", v=100)
run("SAVEPOINT s")
try:
    run("INSERT INTO pg8000_item (v) VALUES (:v)", v=100)
    raise SystemExit("a duplicate key was not refused")
except pg8000.native.DatabaseError as error:
    check("sqlstate", error.args[0]["C"], "23505")
run("ROLLBACK TO SAVEPOINT s")
run("INSERT INTO pg8000_item (v) VALUES (:v)", v=102)
run("COMMIT")
run("START TRANSACTION")
run("DELETE FROM pg8000_item")
run("ROLLBACK")
check("savepoint and rollback", run("SELECT v FROM pg8000_item WHERE v BETWEEN 100 AND 199 ORDER BY v"), [[100], [102]])

# COPY
text = "".join(f"{n}\n" for n in range(200, 300)).encode()
run("COPY pg8000_copy (v) FROM STDIN", stream=io.BytesIO(text))
check("COPY in", connection.row_count, 100)
out = io.BytesIO()
run("COPY (SELECT v FROM pg8000_copy WHERE v BETWEEN 200 AND 299 ORDER BY v) TO STDOUT", stream=out)
check("COPY out", out.getvalue(), text)

# a cursor in SQL
run("START TRANSACTION")
run("DECLARE portal CURSOR FOR SELECT g FROM generate_series(1, 20) g")
check("cursor", [r[0] for r in run("FETCH 7 FROM portal") + run("FETCH ALL FROM portal")], list(range(1, 21)))
run("COMMIT")

# cancel: the driver has no cancel request, so another session asks for it
other = pg8000.native.Connection(**PLACE)
pid = run("SELECT pg_backend_pid()")[0][0]
check("backend pid", connection._backend_key_data is not None, True)
run("SET statement_timeout = '500ms'")
try:
    run("SELECT pg_sleep(30)")
    raise SystemExit("the query was not cancelled")
except pg8000.native.DatabaseError as error:
    check("cancelled", error.args[0]["C"], "57014")
run("RESET statement_timeout")

# LISTEN and NOTIFY
run("LISTEN pg8000")
other_pid = other.run("SELECT pg_backend_pid()")[0][0]
other.run("NOTIFY pg8000, 'hello'")
for _ in range(100):
    run("SELECT pg_sleep(0.05)")
    if connection.notifications:
        break
check("notifications", list(connection.notifications), [(other_pid, "pg8000", "hello")])
other.close()
connection.close()

# The DB API, as SQLAlchemy uses it
with pg8000.dbapi.connect(**PLACE) as connection:
    cursor = connection.cursor()
    cursor.executemany("UPDATE pg8000_item SET v = v + 1000 WHERE v = %s", [(n,) for n in range(5)])
    connection.commit()
    cursor.execute("DELETE FROM pg8000_item")
    connection.rollback()
    cursor.execute("SELECT count(*) FROM pg8000_item WHERE v >= 1000")
    check("DB API", tuple(cursor.fetchone()), (5,))
print("ok")

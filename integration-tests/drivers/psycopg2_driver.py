"""psycopg2 with its default settings. Where to connect: PGHOST, PGPORT, PGUSER, PGPASSWORD, PGDATABASE."""
import datetime
import decimal
import io
import select
import threading

import psycopg2
import psycopg2.errors
import psycopg2.extras


def check(what, got, expected):
    if got != expected:
        raise SystemExit(f"{what}: got {got!r}, expected {expected!r}")


connection = psycopg2.connect("")
cursor = connection.cursor()
cursor.execute("SET TimeZone = 'UTC'")
cursor.execute("DROP TABLE IF EXISTS psycopg2_item, psycopg2_value, psycopg2_copy, psycopg2_execute")
cursor.execute("CREATE TABLE psycopg2_item (id serial PRIMARY KEY, v int NOT NULL UNIQUE)")
cursor.execute("CREATE TABLE psycopg2_copy (v int PRIMARY KEY)")
cursor.execute("CREATE TABLE psycopg2_execute (v int PRIMARY KEY)")
cursor.execute(
    "CREATE TABLE psycopg2_value (id bigint PRIMARY KEY, n numeric, ints int[], texts text[], j jsonb, t timestamptz, b bytea)"
)
connection.commit()

# values
row = (
    2**40,
    decimal.Decimal("12345678901234567890.000100"),
    [1, None, 3],
    ["a", None, 'b"c,{}'],
    {"a": [1, 2.5, None], "b": "ü"},
    datetime.datetime(2024, 2, 29, 23, 59, 59, 123456, tzinfo=datetime.timezone.utc),
)
cursor.execute(
    "INSERT INTO psycopg2_value VALUES (%s, %s, %s, %s, %s, %s, %s) RETURNING id",
    (*row[:4], psycopg2.extras.Json(row[4]), row[5], psycopg2.Binary(b"\x00\xff\\x")),
)
check("RETURNING", cursor.fetchone(), (row[0],))
cursor.execute("SELECT * FROM psycopg2_value")
got = cursor.fetchone()
check("values", got[:6], row)
check("bytea", bytes(got[6]), b"\x00\xff\\x")
connection.commit()

# a statement prepared in SQL, executed more than five times
cursor.execute("PREPARE put AS INSERT INTO psycopg2_execute (v) VALUES ($1) RETURNING v")
for number in range(12):
    cursor.execute("EXECUTE put (%s)", (number,))
    check("EXECUTE", cursor.fetchone(), (number,))
psycopg2.extras.execute_values(cursor, "INSERT INTO psycopg2_item (v) VALUES %s", [(n,) for n in range(20, 60)])
psycopg2.extras.execute_batch(cursor, "UPDATE psycopg2_item SET v = v + 1000 WHERE v = %s", [(n,) for n in range(20, 40)])
connection.commit()

# commit, rollback, savepoint, error
cursor.execute("INSERT INTO psycopg2_item (v) VALUES (100)")
cursor.execute("SAVEPOINT s")
try:
    cursor.execute("INSERT INTO psycopg2_item (v) VALUES (100)")
    raise SystemExit("a duplicate key was not refused")
except psycopg2.errors.UniqueViolation as error:
    check("sqlstate", error.pgcode, "23505")
    cursor.execute("ROLLBACK TO SAVEPOINT s")
cursor.execute("INSERT INTO psycopg2_item (v) VALUES (102)")
connection.commit()
cursor.execute("DELETE FROM psycopg2_item")
connection.rollback()
cursor.execute("SELECT v FROM psycopg2_item WHERE v BETWEEN 100 AND 199 ORDER BY v")
check("savepoint and rollback", cursor.fetchall(), [(100,), (102,)])
try:
    cursor.execute("SELECT 1/0")
    raise SystemExit("no error for 1/0")
except psycopg2.errors.DivisionByZero:
    pass
try:
    cursor.execute("SELECT 1")
    raise SystemExit("a failed transaction went on")
except psycopg2.errors.InFailedSqlTransaction:
    connection.rollback()

# COPY
text = "".join(f"{n}\n" for n in range(200, 300))
cursor.copy_expert("COPY psycopg2_copy (v) FROM STDIN", io.StringIO(text))
check("COPY in", cursor.rowcount, 100)
out = io.StringIO()
cursor.copy_expert("COPY (SELECT v FROM psycopg2_copy WHERE v BETWEEN 200 AND 299 ORDER BY v) TO STDOUT", out)
check("COPY out", out.getvalue(), text)
connection.commit()

# a server-side cursor
with connection.cursor("portal") as portal:
    portal.itersize = 7
    portal.execute("SELECT g FROM generate_series(1, 50) g")
    check("server-side cursor", [r[0] for r in portal], list(range(1, 51)))
connection.commit()

# cancel
done = threading.Event()


def canceller():
    while not done.wait(0.2):
        connection.cancel()


thread = threading.Thread(target=canceller)
thread.start()
try:
    cursor.execute("SELECT pg_sleep(30)")
    raise SystemExit("the query was not cancelled")
except psycopg2.errors.QueryCanceled:
    pass
finally:
    done.set()
    thread.join()
connection.rollback()

# LISTEN and NOTIFY
connection.autocommit = True
for _ in range(5):
    try:
        cursor.execute("LISTEN psycopg2")
        break
    except psycopg2.errors.QueryCanceled:  # a late cancel request
        pass
other = psycopg2.connect("")
other_cursor = other.cursor()
other_cursor.execute("NOTIFY psycopg2, 'hello'")
other.commit()
for _ in range(10):
    select.select([connection], [], [], 1)
    connection.poll()
    if connection.notifies:
        break
check("notifications", [(n.channel, n.payload, n.pid) for n in connection.notifies], [("psycopg2", "hello", other.info.backend_pid)])
other.close()
connection.close()
print("ok")

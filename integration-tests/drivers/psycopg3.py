"""psycopg 3 with its default settings. Where to connect: PGHOST, PGPORT, PGUSER, PGPASSWORD, PGDATABASE."""
import datetime
import decimal
import threading

import psycopg
from psycopg.types.json import Jsonb


def check(what, got, expected):
    if got != expected:
        raise SystemExit(f"{what}: got {got!r}, expected {expected!r}")


ROW = (
    2**40,
    decimal.Decimal("12345678901234567890.000100"),
    "Zoë\t\\N",
    [1, None, 3],
    ["a", None, 'b"c,{}'],
    {"a": [1, 2.5, None], "b": "ü"},
    datetime.datetime(2024, 2, 29, 23, 59, 59, 123456, tzinfo=datetime.timezone.utc),
    b"\x00\xff\\x",
    True,
    1.1,
)


def values(connection):
    connection.execute("DROP TABLE IF EXISTS psycopg3_value")
    connection.execute(
        "CREATE TABLE psycopg3_value (id bigint PRIMARY KEY, n numeric, s text, ints int[], texts text[], j jsonb,"
        " t timestamptz, b bytea, f boolean, d double precision)"
    )
    insert = "INSERT INTO psycopg3_value VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s) RETURNING id"
    for number, binary in enumerate((False, True)):
        row = (ROW[0] + number, *ROW[1:5], Jsonb(ROW[5]), *ROW[6:])
        if binary:
            insert = insert.replace("%s", "%b")
        check("RETURNING", connection.execute(insert, row).fetchone(), (row[0],))
    for binary in (False, True):
        with connection.cursor(binary=binary) as cursor:
            rows = cursor.execute("SELECT * FROM psycopg3_value ORDER BY id").fetchall()
        check(f"values, binary={binary}", rows, [ROW, (ROW[0] + 1, *ROW[1:])])


def prepared(connection):
    connection.execute("DROP TABLE IF EXISTS psycopg3_item")
    connection.execute("CREATE TABLE psycopg3_item (id serial PRIMARY KEY, v int NOT NULL UNIQUE)")
    # Prepared on the server from the sixth execution on.
    for number in range(12):
        got = connection.execute("INSERT INTO psycopg3_item (v) VALUES (%s) RETURNING v", (number,)).fetchone()
        check("prepared", got, (number,))
    names = connection.execute("SELECT count(*) FROM pg_prepared_statements WHERE NOT from_sql").fetchone()
    check("prepared statements exist", names[0] >= 1, True)
    with connection.cursor() as cursor:
        cursor.executemany("UPDATE psycopg3_item SET v = v + 1000 WHERE v = %s", [(n,) for n in range(3)])
        check("executemany", cursor.rowcount, 3)


def transactions(connection):
    with connection.transaction():
        connection.execute("INSERT INTO psycopg3_item (v) VALUES (100)")
        try:
            with connection.transaction():  # a savepoint
                connection.execute("INSERT INTO psycopg3_item (v) VALUES (101)")
                connection.execute("INSERT INTO psycopg3_item (v) VALUES (100)")
        except psycopg.errors.UniqueViolation as error:
            check("sqlstate", error.sqlstate, "23505")
            check("constraint", error.diag.constraint_name, "psycopg3_item_v_key")
        connection.execute("INSERT INTO psycopg3_item (v) VALUES (102)")
    try:
        with connection.transaction():
            connection.execute("DELETE FROM psycopg3_item")
            raise RuntimeError
    except RuntimeError:
        pass
    got = connection.execute("SELECT v FROM psycopg3_item WHERE v BETWEEN 100 AND 199 ORDER BY v").fetchall()
    check("savepoint and rollback", got, [(100,), (102,)])


def copies(connection):
    rows = [(200 + n,) for n in range(100)]
    connection.execute("DROP TABLE IF EXISTS psycopg3_copy")
    connection.execute("CREATE TABLE psycopg3_copy (v int PRIMARY KEY)")
    with connection.cursor() as cursor:
        with cursor.copy("COPY psycopg3_copy (v) FROM STDIN") as copy:
            for row in rows:
                copy.write_row(row)
        check("COPY in", cursor.rowcount, 100)
        with cursor.copy("COPY psycopg3_copy (v) FROM STDIN (FORMAT binary)") as copy:
            copy.set_types(["int4"])
            copy.write_row((400,))
        with cursor.copy("COPY (SELECT v FROM psycopg3_copy WHERE v BETWEEN 200 AND 299 ORDER BY v) TO STDOUT") as copy:
            copy.set_types(["int4"])
            check("COPY out", list(copy.rows()), rows)
        try:
            with cursor.copy("COPY psycopg3_copy (v) FROM STDIN") as copy:
                copy.write_row((500,))
                raise RuntimeError  # ends in CopyFail
        except RuntimeError:
            pass
        check("COPY failed", cursor.execute("SELECT count(*) FROM psycopg3_copy WHERE v = 500").fetchone(), (0,))


def pipeline(connection):
    with connection.pipeline():
        cursors = [connection.execute("INSERT INTO psycopg3_item (v) VALUES (%s) RETURNING v", (n,)) for n in range(600, 620)]
    check("pipeline", [cursor.fetchone()[0] for cursor in cursors], list(range(600, 620)))
    try:
        with connection.pipeline():
            connection.execute("INSERT INTO psycopg3_item (v) VALUES (700)")
            connection.execute("INSERT INTO psycopg3_item (v) VALUES (600)")
            connection.execute("INSERT INTO psycopg3_item (v) VALUES (701)")
    except psycopg.errors.UniqueViolation:
        pass
    else:
        raise SystemExit("an error in a pipeline was not reported")
    check("after a failed pipeline", connection.execute("SELECT count(*) FROM psycopg3_item WHERE v = 701").fetchone(), (0,))


def server_cursor(connection):
    with connection.transaction(), connection.cursor("portal") as cursor:
        cursor.itersize = 7
        cursor.execute("SELECT g FROM generate_series(1, 50) g")
        check("server-side cursor", [row[0] for row in cursor], list(range(1, 51)))


def cancel(connection):
    done = threading.Event()

    def canceller():
        while not done.wait(0.2):
            connection.cancel_safe()

    thread = threading.Thread(target=canceller)
    thread.start()
    try:
        connection.execute("SELECT pg_sleep(30)")
        raise SystemExit("the query was not cancelled")
    except psycopg.errors.QueryCanceled:
        pass
    finally:
        done.set()
        thread.join()
    # A late cancel request may hit the next statement: it must not be lost either way.
    for _ in range(5):
        try:
            check("after cancel", connection.execute("SELECT 1").fetchone(), (1,))
            break
        except psycopg.errors.QueryCanceled:
            pass


def notifications(connection):
    connection.execute("LISTEN psycopg3")
    with psycopg.connect(autocommit=True) as other:
        pid = other.info.backend_pid
        other.execute("SELECT pg_notify('psycopg3', 'hello')")
    for notification in connection.notifies(timeout=10, stop_after=1):
        check("notification", (notification.channel, notification.payload, notification.pid), ("psycopg3", "hello", pid))
        return
    raise SystemExit("no notification within 10 s")


with psycopg.connect(autocommit=True) as connection:
    connection.execute("SET TimeZone = 'UTC'")
    backend = connection.execute("SELECT pg_backend_pid()").fetchone()[0]
    check("backend pid", connection.info.backend_pid, backend)
    for part in (values, prepared, transactions, copies, pipeline, server_cursor, cancel, notifications):
        part(connection)
# Without autocommit, as most applications run.
with psycopg.connect() as connection:
    connection.execute("UPDATE psycopg3_item SET v = v + 10000 WHERE v = 100")
    connection.commit()
    connection.execute("UPDATE psycopg3_item SET v = v + 10000 WHERE v = 102")
    connection.rollback()
    check("commit and rollback", connection.execute("SELECT v FROM psycopg3_item WHERE v IN (102, 10100) ORDER BY v").fetchall(), [(102,), (10100,)])
print("ok")

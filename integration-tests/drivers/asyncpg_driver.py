"""asyncpg with its default settings. Where to connect: PGHOST, PGPORT, PGUSER, PGPASSWORD, PGDATABASE."""
import asyncio
import datetime
import decimal
import io
import json

import asyncpg


def check(what, got, expected):
    if got != expected:
        raise SystemExit(f"{what}: got {got!r}, expected {expected!r}")


async def values(connection):
    await connection.execute("DROP TABLE IF EXISTS asyncpg_value")
    await connection.execute(
        "CREATE TABLE asyncpg_value (id bigint PRIMARY KEY, n numeric, ints int[], texts text[], j jsonb, t timestamptz, b bytea, d float8)"
    )
    row = (
        2**40,
        decimal.Decimal("12345678901234567890.000100"),
        [1, None, 3],
        ["a", None, 'b"c,{}'],
        json.dumps({"a": [1, 2.5, None]}),
        datetime.datetime(2024, 2, 29, 23, 59, 59, 123456, tzinfo=datetime.timezone.utc),
        b"\x00\xff\\x",
        1.1,
    )
    got = await connection.fetchval("INSERT INTO asyncpg_value VALUES ($1, $2, $3, $4, $5, $6, $7, $8) RETURNING id", *row)
    check("RETURNING", got, row[0])
    got = tuple(await connection.fetchrow("SELECT * FROM asyncpg_value"))
    check("values", (*got[:4], json.loads(got[4]), *got[5:]), (*row[:4], json.loads(row[4]), *row[5:]))


async def prepared(connection):
    await connection.execute("DROP TABLE IF EXISTS asyncpg_item")
    await connection.execute("CREATE TABLE asyncpg_item (id serial PRIMARY KEY, v int NOT NULL UNIQUE)")
    statement = await connection.prepare("INSERT INTO asyncpg_item (v) VALUES ($1) RETURNING v")
    for number in range(12):
        check("prepared", await statement.fetchval(number), number)
    for number in range(12, 24):  # asyncpg's own cache of statements
        await connection.execute("INSERT INTO asyncpg_item (v) VALUES ($1)", number)
    await connection.executemany("UPDATE asyncpg_item SET v = v + 1000 WHERE v = $1", [(n,) for n in range(5)])


async def transactions(connection):
    async with connection.transaction():
        await connection.execute("INSERT INTO asyncpg_item (v) VALUES (100)")
        try:
            async with connection.transaction():  # a savepoint
                await connection.execute("INSERT INTO asyncpg_item (v) VALUES (100)")
            raise SystemExit("a duplicate key was not refused")
        except asyncpg.UniqueViolationError as error:
            check("sqlstate", error.sqlstate, "23505")
        await connection.execute("INSERT INTO asyncpg_item (v) VALUES (102)")
    transaction = connection.transaction(isolation="serializable")
    await transaction.start()
    await connection.execute("DELETE FROM asyncpg_item")
    await transaction.rollback()
    rows = await connection.fetch("SELECT v FROM asyncpg_item WHERE v BETWEEN 100 AND 199 ORDER BY v")
    check("savepoint and rollback", [row["v"] for row in rows], [100, 102])


async def copies(connection):
    await connection.execute("DROP TABLE IF EXISTS asyncpg_copy")
    await connection.execute("CREATE TABLE asyncpg_copy (v int PRIMARY KEY)")
    rows = [(n,) for n in range(200, 300)]
    check("COPY in, binary", await connection.copy_records_to_table("asyncpg_copy", records=rows, columns=["v"]), "COPY 100")
    text = io.BytesIO("".join(f"{n}\n" for n in range(300, 310)).encode())
    check("COPY in, csv", await connection.copy_to_table("asyncpg_copy", source=text, columns=["v"], format="csv"), "COPY 10")
    out = io.BytesIO()
    await connection.copy_from_query("SELECT v FROM asyncpg_copy WHERE v BETWEEN 200 AND 299 ORDER BY v", output=out)
    check("COPY out", out.getvalue().decode(), "".join(f"{n}\n" for n, in rows))


async def server_cursor(connection):
    async with connection.transaction():
        got = [row[0] async for row in connection.cursor("SELECT g FROM generate_series(1, 50) g", prefetch=7)]
    check("cursor", got, list(range(1, 51)))


async def cancel(connection):
    try:
        await asyncio.wait_for(connection.execute("SELECT pg_sleep(30) /* asyncpg */"), 0.5)
        raise SystemExit("the query was not cancelled")
    except asyncio.TimeoutError:
        pass
    check("after cancel", await connection.fetchval("SELECT 1"), 1)
    running = await connection.fetchval("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state = 'active' AND query LIKE 'SELECT pg\\_sleep(30) /* asyncpg%'")
    check("nothing sleeps any more", running, 0)


async def notifications(connection):
    heard = asyncio.get_running_loop().create_future()
    await connection.add_listener("asyncpg", lambda _, pid, channel, payload: heard.done() or heard.set_result((pid, channel, payload)))
    other = await asyncpg.connect()
    await other.execute("NOTIFY asyncpg, 'hello'")
    check("notification", await asyncio.wait_for(heard, 10), (other.get_server_pid(), "asyncpg", "hello"))
    await other.close()


async def main():
    connection = await asyncpg.connect()
    check("backend pid", connection.get_server_pid(), await connection.fetchval("SELECT pg_backend_pid()"))
    for part in (values, prepared, transactions, copies, server_cursor, cancel, notifications):
        await part(connection)
    try:
        await connection.fetchval("SELECT 1/0")
        raise SystemExit("no error for 1/0")
    except asyncpg.DivisionByZeroError:
        check("after an error", await connection.fetchval("SELECT 1"), 1)
    await connection.close()


asyncio.run(asyncio.wait_for(main(), 50))
print("ok")

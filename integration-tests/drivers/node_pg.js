// node `pg` with its default settings. Where to connect: PGHOST, PGPORT, PGUSER, PGPASSWORD, PGDATABASE.
"use strict";
const assert = require("node:assert/strict");
const { Client, Pool, Query } = require("pg");

async function values(client) {
  await client.query("DROP TABLE IF EXISTS node_value");
  await client.query(
    "CREATE TABLE node_value (id bigint PRIMARY KEY, n numeric, ints int[], texts text[], j jsonb, t timestamptz, b bytea)",
  );
  const row = {
    id: "1099511627776",
    n: "12345678901234567890.000100",
    ints: [1, null, 3],
    texts: ["a", null, 'b"c,{}'],
    j: { a: [1, 2.5, null], b: "ü" },
    t: new Date("2024-02-29T23:59:59.123Z"),
    b: Buffer.from([0, 255, 92, 120]),
  };
  const inserted = await client.query(
    "INSERT INTO node_value VALUES ($1, $2, $3, $4, $5, $6, $7) RETURNING id",
    Object.values(row),
  );
  assert.deepEqual(inserted.rows, [{ id: row.id }], "RETURNING");
  assert.deepEqual((await client.query("SELECT * FROM node_value")).rows, [row], "values");
  const binary = await client.query({ text: "SELECT 7::int4 AS v", binary: true });
  assert.deepEqual(binary.rows, [{ v: 7 }], "binary result");
}

async function prepared(client) {
  await client.query("DROP TABLE IF EXISTS node_item");
  await client.query("CREATE TABLE node_item (id serial PRIMARY KEY, v int NOT NULL UNIQUE)");
  for (let v = 0; v < 12; v++) {
    const result = await client.query({
      name: "put",
      text: "INSERT INTO node_item (v) VALUES ($1) RETURNING v",
      values: [v],
    });
    assert.deepEqual(result.rows, [{ v }], "prepared");
  }
  const several = await client.query("UPDATE node_item SET v = v + 1000 WHERE v = 1; SELECT 5 AS five");
  assert.deepEqual([several[0].rowCount, several[1].rows], [1, [{ five: 5 }]], "two statements in one query");
}

async function transactions(client) {
  await client.query("BEGIN");
  await client.query("INSERT INTO node_item (v) VALUES (100)");
  await client.query("SAVEPOINT s");
  await assert.rejects(client.query("INSERT INTO node_item (v) VALUES ($1)", [100]), { code: "23505" });
  await assert.rejects(client.query("SELECT 1"), { code: "25P02" });
  await client.query("ROLLBACK TO SAVEPOINT s");
  await client.query("INSERT INTO node_item (v) VALUES (102)");
  await client.query("COMMIT");
  await client.query("BEGIN");
  await client.query("DELETE FROM node_item");
  await client.query("ROLLBACK");
  const { rows } = await client.query("SELECT v FROM node_item WHERE v BETWEEN 100 AND 199 ORDER BY v");
  assert.deepEqual(rows, [{ v: 100 }, { v: 102 }], "savepoint and rollback");
}

async function sqlCursor(client) {
  await client.query("BEGIN");
  await client.query("DECLARE portal CURSOR FOR SELECT g FROM generate_series(1, 20) g");
  const first = await client.query("FETCH 7 FROM portal");
  const rest = await client.query("FETCH ALL FROM portal");
  await client.query("COMMIT");
  assert.deepEqual([first.rowCount, rest.rowCount], [7, 13], "cursor");
}

async function cancel(client) {
  const query = new Query("SELECT pg_sleep(30)");
  const ended = new Promise((resolve) => {
    query.on("error", resolve);
    query.on("end", () => resolve(null));
  });
  client.query(query);
  await new Promise((resolve) => setTimeout(resolve, 500));
  new Client().cancel(client, query);
  const error = await ended;
  assert.equal(error && error.code, "57014", "cancelled");
  assert.equal((await client.query("SELECT 1 AS one")).rows[0].one, 1, "after cancel");
}

async function notifications(client) {
  const heard = new Promise((resolve, reject) => {
    client.once("notification", resolve);
    setTimeout(() => reject(new Error("no notification within 10 s")), 10_000).unref();
  });
  await client.query("LISTEN node");
  const other = new Client();
  await other.connect();
  const pid = (await other.query("SELECT pg_backend_pid() AS pid")).rows[0].pid;
  await other.query("SELECT pg_notify('node', 'hello')");
  await other.end();
  const { channel, payload, processId } = await heard;
  assert.deepEqual([channel, payload, processId], ["node", "hello", pid], "notification");
}

async function pool() {
  const sessions = new Pool({ max: 4 });
  await Promise.all(
    Array.from({ length: 40 }, (_, n) => sessions.query("INSERT INTO node_item (v) VALUES ($1)", [200 + n])),
  );
  const { rows } = await sessions.query("SELECT count(*)::int AS n FROM node_item WHERE v BETWEEN 200 AND 239");
  assert.equal(rows[0].n, 40, "a pool");
  await sessions.end();
}

async function main() {
  const client = new Client();
  await client.connect();
  await client.query("SET TimeZone = 'UTC'");
  for (const part of [values, prepared, transactions, sqlCursor, cancel, notifications]) await part(client);
  await assert.rejects(client.query("SELECT 1/0"), { code: "22012" });
  await client.end();
  await pool();
  console.log("ok");
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});

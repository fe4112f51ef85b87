// Clients that work as TPC-C's do, of one pool, with named statements; prints what was acknowledged, and ends with an error at the first failed
// statement. Environment: CLIENTS, STOP (a file that ends it), THINK (milliseconds between transactions).
const { Pool } = require('pg');
const fs = require('fs');

const clients = Number(process.env.CLIENTS);
const think = Number(process.env.THINK);
const pool = new Pool({ max: clients, idleTimeoutMillis: 0 });
const failures = [];
const acknowledged = [];
pool.on('error', (error) => failures.push(`a pooled connection: ${error.message}`));

const between = (low, high) => low + Math.floor(Math.random() * (high - low + 1));
const sleep = (ms) => new Promise((done) => setTimeout(done, ms));

async function order(connection, ref) {
  const district = between(1, 10);
  const items = [...new Set([between(1, 100), between(1, 100), between(1, 100)])].sort((a, b) => a - b);
  const next = await connection.query({
    name: 'next', text: 'UPDATE district SET next_order = next_order + 1 WHERE id = $1 RETURNING next_order', values: [district],
  });
  const made = await connection.query({
    name: 'order', text: 'INSERT INTO orders (district, number, ref) VALUES ($1, $2, $3) RETURNING id',
    values: [district, next.rows[0].next_order, ref],
  });
  for (const item of items) {
    await connection.query({ name: 'stock', text: 'UPDATE stock SET quantity = quantity - 1 WHERE item = $1', values: [item] });
    await connection.query({
      name: 'line', text: 'INSERT INTO order_line (order_id, item) VALUES ($1, $2)', values: [made.rows[0].id, item],
    });
  }
}

async function payment(connection, ref) {
  const [district, customer, amount] = [between(1, 10), between(1, 300), between(1, 500)];
  await connection.query({ name: 'ytd', text: 'UPDATE district SET ytd = ytd + $1 WHERE id = $2', values: [amount, district] });
  await connection.query({
    name: 'balance', text: 'UPDATE customer SET balance = balance - $1 WHERE id = $2', values: [amount, customer],
  });
  await connection.query({
    name: 'history', text: 'INSERT INTO history (customer, amount, ref) VALUES ($1, $2, $3)', values: [customer, amount, ref],
  });
}

async function client(number) {
  for (let turn = 1; !fs.existsSync(process.env.STOP) && failures.length === 0; turn += 1) {
    const ref = `node-${number}-${turn}`;
    const connection = await pool.connect();
    try {
      await connection.query('BEGIN');
      await (Math.random() < 0.5 ? order : payment)(connection, ref);
      await connection.query('COMMIT');
      acknowledged.push(ref);
      await connection.query({ name: 'read', text: 'SELECT balance FROM customer WHERE id = $1', values: [between(1, 300)] });
    } catch (error) {
      failures.push(`client ${number}: ${error.message}`);
    } finally {
      connection.release();
    }
    await sleep(think * (0.5 + Math.random()));
  }
}

(async () => {
  await Promise.all(Array.from({ length: clients }, (_, number) => client(number)));
  await pool.end();
  console.log(acknowledged.join('\n'));
  if (failures.length > 0) {
    console.error(failures.join('\n'));
    process.exitCode = 1;
  }
})();

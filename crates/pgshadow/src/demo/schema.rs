//! A small shop: its tables and their rows, made on the source.
use super::cluster::Endpoint;
use super::error::DemoError;

/// Keys of customers made at the start; the load writes orders for them.
pub const CUSTOMERS: i64 = 500;
/// Products, each with a row of stock. Few, so that clients contend for them.
pub const PRODUCTS: i32 = 50;
/// Orders made at the start.
pub const ORDERS: i64 = 1000;
/// The customer whose row is deleted behind pgshadow's back. No order is for it and no client but one writes it.
pub const PLANTED_CUSTOMER: i64 = 7;
/// The modulus of the stock rows' arithmetic.
pub const MODULUS: i64 = 1_000_003;

/// Its tables.
const TABLES: [&str; 6] = ["customers", "products", "orders", "order_lines", "stock", "events"];

const SCHEMA: &str = "
CREATE TYPE tier AS ENUM ('bronze', 'silver', 'gold');
CREATE TYPE order_status AS ENUM ('new', 'paid', 'shipped', 'returned');
CREATE TABLE customers (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    ref uuid NOT NULL DEFAULT gen_random_uuid() UNIQUE,
    email text NOT NULL UNIQUE,
    name text NOT NULL,
    tier tier NOT NULL DEFAULT 'bronze',
    tags text[] NOT NULL DEFAULT '{}',
    profile jsonb NOT NULL DEFAULT '{}',
    joined_at timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE products (
    id serial PRIMARY KEY,
    name text NOT NULL,
    price numeric(10,2) NOT NULL CHECK (price > 0),
    changed_at timestamptz
);
CREATE TABLE orders (
    id bigserial PRIMARY KEY,
    customer_id bigint NOT NULL REFERENCES customers ON DELETE CASCADE,
    status order_status NOT NULL DEFAULT 'new',
    total numeric(12,2) NOT NULL DEFAULT 0,
    placed_at timestamptz NOT NULL DEFAULT now(),
    note text
);
CREATE INDEX ON orders (customer_id);
CREATE TABLE order_lines (
    order_id bigint NOT NULL REFERENCES orders ON DELETE CASCADE,
    line int NOT NULL,
    product_id int NOT NULL,
    quantity int NOT NULL,
    price numeric(10,2) NOT NULL,
    PRIMARY KEY (order_id, line)
);
CREATE TABLE stock (
    product_id int PRIMARY KEY,
    v bigint NOT NULL,
    reserved int NOT NULL DEFAULT 0
);
CREATE TABLE events (
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    kind text NOT NULL,
    order_id bigint,
    data jsonb
);
";

/// Rows that are made on the source.
const SEED: &str = "
INSERT INTO customers (email, name, tier, tags, profile)
    SELECT 'customer' || g || '@example.com', 'Customer ' || g, (enum_range(NULL::tier))[1 + g % 3],
           CASE WHEN g % 4 = 0 THEN ARRAY['regular', 'since ' || 2000 + g % 25] ELSE '{}' END,
           jsonb_build_object('city', (ARRAY['Oslo', 'Lima', 'Kyoto'])[1 + g % 3], 'points', g % 100)
    FROM generate_series(1, {customers}) g;
INSERT INTO products (name, price)
    SELECT 'Product ' || g, 1 + (g * 7919) % 9900 / 100.0 FROM generate_series(1, {products}) g;
INSERT INTO stock (product_id, v) SELECT g, g FROM generate_series(1, {products}) g;
INSERT INTO orders (customer_id, status, placed_at)
    SELECT 8 + g * 31 % ({customers} - 7), (enum_range(NULL::order_status))[1 + g % 4], now() - g * interval '1 hour'
    FROM generate_series(1, {orders}) g;
INSERT INTO order_lines (order_id, line, product_id, quantity, price)
    SELECT o.id, l, p.id, 1 + (o.id + l) % 5, p.price
    FROM orders o CROSS JOIN generate_series(1, 3) l JOIN products p ON p.id = 1 + (o.id * 13 + l) % {products};
UPDATE orders o SET total = (SELECT sum(quantity * price) FROM order_lines l WHERE l.order_id = o.id);
INSERT INTO events (kind, order_id, data)
    SELECT 'placed', id, jsonb_build_object('customer', customer_id) FROM orders;
";

/// What the source holds at the start.
#[derive(Debug, Clone, Copy)]
pub struct Seeded {
    /// Its tables.
    pub tables: usize,
    /// Their rows.
    pub rows: u64,
}

/// Makes the tables and their rows on the source; with a target, the tables there as well, without rows.
///
/// # Errors
/// When a server refuses.
pub async fn seed(source: &Endpoint, target: Option<&Endpoint>) -> Result<Seeded, DemoError> {
    let failed = |error| DemoError::database("the demo's tables")(error);
    if let Some(target) = target {
        target.connect().await.map_err(failed)?.batch_execute(SCHEMA).await.map_err(failed)?;
    }
    let source = source.connect().await.map_err(failed)?;
    source.batch_execute(SCHEMA).await.map_err(failed)?;
    let seed = SEED
        .replace("{customers}", &CUSTOMERS.to_string())
        .replace("{products}", &PRODUCTS.to_string())
        .replace("{orders}", &ORDERS.to_string());
    source.batch_execute(&seed).await.map_err(failed)?;
    source.batch_execute("ANALYZE").await.map_err(failed)?;
    let mut rows = 0;
    for table in TABLES {
        let count = source.query_one(&format!("SELECT count(*) FROM {table}"), &[]).await.map_err(failed)?;
        rows += count.try_get::<_, i64>(0).map_err(failed)?.unsigned_abs();
    }
    Ok(Seeded { tables: TABLES.len(), rows })
}

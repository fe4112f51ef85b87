//! What a client does, one transaction after the other.
use super::Tally;
use super::session::{Parameter, Session};
use crate::demo::schema::{CUSTOMERS, MODULUS, PLANTED_CUSTOMER, PRODUCTS};
use tokio_postgres::Error;

/// One kind of transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activity {
    /// An order with its lines, its stock and an event: prepared statements in a transaction.
    Order,
    /// A contended row in autocommit, simple protocol.
    Contend,
    /// The same, prepared.
    ContendPrepared,
    /// A new customer with all defaults.
    Register,
    /// INSERT ... ON CONFLICT DO UPDATE on a few keys.
    Visit,
    /// A key that is taken: the database refuses.
    Duplicate,
    /// Savepoints, one of them undone.
    SecondThoughts,
    /// A transaction that is rolled back.
    Abandon,
    /// A customer with all orders and their lines.
    Leave,
    /// An order with its lines.
    CancelOrder,
    /// Orders found by a subquery that skips locked rows.
    Ship,
    /// A numeric that is computed from itself.
    Reprice,
    /// COPY IN, to the table without a key.
    ImportEvents,
    /// COPY IN within a transaction, to a table with foreign keys.
    ImportLines,
    /// Reads only.
    Browse,
}

/// How often each is done, in parts of their sum.
const MIX: [(Activity, u64); 15] = [
    (Activity::Order, 22),
    (Activity::Contend, 10),
    (Activity::ContendPrepared, 12),
    (Activity::Register, 8),
    (Activity::Visit, 8),
    (Activity::Duplicate, 1),
    (Activity::SecondThoughts, 6),
    (Activity::Abandon, 4),
    (Activity::Leave, 3),
    (Activity::CancelOrder, 4),
    (Activity::Ship, 4),
    (Activity::Reprice, 4),
    (Activity::ImportEvents, 1),
    (Activity::ImportLines, 1),
    (Activity::Browse, 12),
];

/// Lines of an order.
const LINES_MAX: i64 = 4;
/// Rows of one COPY.
const COPY_ROWS: u32 = 20;
/// Addresses that visitors share.
const VISITORS: i64 = 40;

impl Session {
    /// What to do next.
    pub fn next_activity(&mut self) -> Activity {
        let mut left = self.chance.below(MIX.iter().map(|(_, parts)| parts).sum());
        for (activity, parts) in MIX {
            if left < parts {
                return activity;
            }
            left -= parts;
        }
        Activity::Browse
    }

    /// Does it.
    ///
    /// # Errors
    /// The database's; a transaction may then be open.
    pub async fn perform(&mut self, activity: Activity) -> Result<(), Error> {
        match activity {
            Activity::Order => self.order().await?,
            Activity::Contend => self.contend().await?,
            Activity::ContendPrepared => self.take_stock().await?,
            Activity::Register => self.register().await?,
            Activity::Visit => self.visit().await?,
            Activity::Duplicate => self.duplicate().await?,
            Activity::SecondThoughts => self.second_thoughts().await?,
            Activity::Abandon => {
                self.abandon().await?;
                Tally::add(&self.tally.rolled_back, 1);
                return Ok(());
            }
            Activity::Leave => self.leave().await?,
            Activity::CancelOrder => self.cancel_order().await?,
            Activity::Ship => self.ship().await?,
            Activity::Reprice => self.reprice().await?,
            Activity::ImportEvents => self.import_events().await?,
            Activity::ImportLines => self.import_lines().await?,
            Activity::Browse => self.browse().await?,
        }
        Tally::add(&self.tally.committed, 1);
        Ok(())
    }

    async fn order(&mut self) -> Result<(), Error> {
        let count = self.chance.between(1, LINES_MAX);
        let mut products: Vec<i32> = (0..count).map(|_| self.some_product()).collect();
        // In one order, so that clients wait for each other and don't deadlock.
        products.sort_unstable();
        products.dedup();
        let quantities: Vec<i32> = products.iter().map(|_| self.some_number(5)).collect();
        self.simple("BEGIN").await?;
        let order = self.insert_order("by an application").await?;
        self.execute(&self.prepared.insert_lines, &[&order, &products, &quantities]).await?;
        let amounts: Vec<i64> = products.iter().map(|_| self.chance.between(1, 1_000_000)).collect();
        for ((product, quantity), amount) in products.iter().zip(&quantities).zip(&amounts) {
            self.execute(&self.prepared.take_stock, &[product, amount, quantity]).await?;
        }
        self.rows(&self.prepared.total, &[&order]).await?;
        self.event("ordered", Some(order)).await?;
        self.simple("COMMIT").await?;
        self.orders.push(order);
        Ok(())
    }

    async fn insert_order(&mut self, note: &str) -> Result<i64, Error> {
        let customer = self.some_customer();
        let rows = self.rows(&self.prepared.insert_order, &[&customer, &note]).await?;
        rows.first().map_or(Ok(0), |row| row.try_get(0))
    }

    async fn event(&self, kind: &str, order: Option<i64>) -> Result<(), Error> {
        let by = i32::try_from(self.number).unwrap_or_default();
        let parameters: [Parameter<'_>; 3] = [&kind, &order, &by];
        self.execute(&self.prepared.event, &parameters).await?;
        Ok(())
    }

    /// The order in which clients write such a row shows in its value.
    async fn contend(&mut self) -> Result<(), Error> {
        let (product, amount) = (self.some_product(), self.chance.between(1, 1_000_000));
        self.simple(&format!("UPDATE stock SET v = (v * 31 + {amount}) % {MODULUS} WHERE product_id = {product}"))
            .await?;
        Ok(())
    }

    async fn take_stock(&mut self) -> Result<(), Error> {
        let (product, amount) = (self.some_product(), self.chance.between(1, 1_000_000));
        self.execute(&self.prepared.take_stock, &[&product, &amount, &1_i32]).await?;
        Ok(())
    }

    async fn register(&mut self) -> Result<(), Error> {
        let name = format!("client {} made this", self.number);
        let tag = self.chance.below(1 << 48);
        let insert = "INSERT INTO customers (email, name, tags) VALUES ($1, $2, $3) RETURNING id, ref::text";
        let (email, tags) = (format!("{tag:x}.{}@example.com", self.number), vec!["new", "with, comma", "\"quoted\""]);
        let rows = self.unprepared(insert, &[&email, &name, &tags]).await?;
        if let Some(row) = rows.first() {
            self.customers.push(row.try_get(0)?);
        }
        Ok(())
    }

    async fn visit(&mut self) -> Result<(), Error> {
        let (visitor, page) = (self.chance.between(1, VISITORS), self.some_product());
        self.simple(&format!(
            "INSERT INTO customers (email, name, profile) \
             VALUES ('visitor{visitor}@example.com', 'Visitor {visitor}', '{{\"visits\": 1}}') \
             ON CONFLICT (email) DO UPDATE SET tier = 'silver', profile = customers.profile || jsonb_build_object( \
             'visits', (customers.profile->>'visits')::int + 1, 'page', {page}) RETURNING id"
        ))
        .await?;
        Ok(())
    }

    async fn duplicate(&mut self) -> Result<(), Error> {
        let taken = self.chance.between(1, CUSTOMERS);
        self.simple(&format!("INSERT INTO customers (email, name) VALUES ('customer{taken}@example.com', 'too late')"))
            .await?;
        Ok(())
    }

    async fn second_thoughts(&mut self) -> Result<(), Error> {
        let (product, amount) = (self.some_product(), self.chance.between(1, 1_000_000));
        self.simple("BEGIN ISOLATION LEVEL READ COMMITTED").await?;
        let order = self.insert_order("with second thoughts").await?;
        self.simple("SAVEPOINT before_lines").await?;
        self.execute(&self.prepared.insert_lines, &[&order, &vec![product], &vec![1_i32]]).await?;
        self.execute(&self.prepared.take_stock, &[&product, &amount, &1_i32]).await?;
        self.simple("ROLLBACK TO SAVEPOINT before_lines").await?;
        self.event("thought again", Some(order)).await?;
        self.simple("SAVEPOINT again").await?;
        self.execute(&self.prepared.insert_lines, &[&order, &vec![product], &vec![2_i32]]).await?;
        self.simple("RELEASE SAVEPOINT again").await?;
        self.rows(&self.prepared.total, &[&order]).await?;
        self.simple("COMMIT").await?;
        self.orders.push(order);
        Ok(())
    }

    async fn abandon(&mut self) -> Result<(), Error> {
        let (product, amount) = (self.some_product(), self.chance.between(1, 1_000_000));
        self.simple("BEGIN").await?;
        let order = self.insert_order("to be abandoned").await?;
        self.execute(&self.prepared.take_stock, &[&product, &amount, &1_i32]).await?;
        self.event("abandoned", Some(order)).await?;
        self.simple("ROLLBACK").await?;
        Ok(())
    }

    async fn leave(&mut self) -> Result<(), Error> {
        let Some(customer) = self.chance.take(&mut self.customers) else { return self.register().await };
        self.unprepared("DELETE FROM customers WHERE id = $1", &[&customer]).await?;
        Ok(())
    }

    async fn cancel_order(&mut self) -> Result<(), Error> {
        let Some(order) = self.chance.take(&mut self.orders) else { return self.order().await };
        self.execute(&self.prepared.delete_order, &[&order]).await?;
        Ok(())
    }

    async fn ship(&mut self) -> Result<(), Error> {
        self.simple(
            "UPDATE orders SET status = 'shipped', note = concat_ws(', ', note, 'shipped') WHERE id IN \
             (SELECT id FROM orders WHERE status = 'paid' ORDER BY id LIMIT 3 FOR UPDATE SKIP LOCKED) RETURNING id",
        )
        .await?;
        Ok(())
    }

    async fn reprice(&mut self) -> Result<(), Error> {
        let product = self.some_product();
        self.execute(&self.prepared.reprice, &[&product]).await?;
        Ok(())
    }

    async fn import_events(&mut self) -> Result<(), Error> {
        let lines: Vec<_> = (1..=COPY_ROWS)
            .map(|second| format!("2026-01-01 12:00:{second:02}.5+01\timported\t\\N\t{{\"n\": {second}}}"))
            .collect();
        self.copy_in("COPY events (at, kind, order_id, data) FROM STDIN", &lines).await?;
        Ok(())
    }

    async fn import_lines(&mut self) -> Result<(), Error> {
        self.simple("BEGIN").await?;
        let order = self.insert_order("imported").await?;
        let lines: Vec<_> = (1..=COPY_ROWS).map(|line| format!("{order}\t{line}\t{line}\t2\t9.90")).collect();
        self.copy_in("COPY order_lines (order_id, line, product_id, quantity, price) FROM STDIN", &lines).await?;
        self.simple("COMMIT").await?;
        self.orders.push(order);
        Ok(())
    }

    async fn browse(&mut self) -> Result<(), Error> {
        let customer = self.some_customer();
        self.rows(&self.prepared.history, &[&customer]).await?;
        self.simple("SELECT count(*), max(v) FROM stock").await?;
        Ok(())
    }

    /// One of its own customers, or one of those that were there at the start.
    fn some_customer(&mut self) -> i64 {
        let own = if self.chance.below(3) == 0 { self.chance.pick(&self.customers) } else { None };
        own.unwrap_or_else(|| self.chance.between(PLANTED_CUSTOMER + 1, CUSTOMERS))
    }

    fn some_product(&mut self) -> i32 {
        self.some_number(PRODUCTS)
    }

    /// From 1 to `last`.
    fn some_number(&mut self, last: i32) -> i32 {
        i32::try_from(self.chance.between(1, i64::from(last))).unwrap_or(1)
    }
}

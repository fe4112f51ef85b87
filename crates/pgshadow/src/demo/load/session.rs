//! One client: its session, its prepared statements, and what it knows of the rows it made.
use super::Tally;
use super::chance::Chance;
use super::work::Activity;
use crate::demo::cluster::Endpoint;
use crate::demo::error::DemoError;
use bytes::Bytes;
use futures::SinkExt;
use std::pin::pin;
use std::sync::Arc;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Error, Row, SimpleQueryMessage, Statement};

/// A parameter of a prepared statement.
pub type Parameter<'a> = &'a (dyn ToSql + Sync);

/// One client of the load.
#[derive(Debug)]
pub struct Session {
    /// Which.
    pub number: u32,
    /// What it does next is up to this.
    pub chance: Chance,
    /// Statements prepared once and executed often.
    pub prepared: Prepared,
    /// Customers that it made, and no other client writes.
    pub customers: Vec<i64>,
    /// Orders that it made.
    pub orders: Vec<i64>,
    /// What it has done.
    pub tally: Arc<Tally>,
    client: Client,
}

/// Statements prepared once and executed often.
#[derive(Debug)]
pub struct Prepared {
    /// An order; returns its key and time.
    pub insert_order: Statement,
    /// Its lines, at the products' prices.
    pub insert_lines: Statement,
    /// Its total from its lines.
    pub total: Statement,
    /// A row that all contend for.
    pub take_stock: Statement,
    /// An order that goes, with its lines.
    pub delete_order: Statement,
    /// A product's price.
    pub reprice: Statement,
    /// A row in the table without a key.
    pub event: Statement,
    /// A read.
    pub history: Statement,
}

impl Prepared {
    async fn on(client: &Client) -> Result<Self, Error> {
        Ok(Self {
            insert_order: client
                .prepare("INSERT INTO orders (customer_id, note) VALUES ($1, $2) RETURNING id, placed_at::text")
                .await?,
            insert_lines: client
                .prepare(
                    "INSERT INTO order_lines (order_id, line, product_id, quantity, price) \
                     SELECT $1, u.line, p.id, u.quantity, p.price \
                     FROM unnest($2::int[], $3::int[]) WITH ORDINALITY AS u(product, quantity, line) \
                     JOIN products p ON p.id = u.product",
                )
                .await?,
            total: client
                .prepare(
                    "UPDATE orders SET status = 'paid', total = (SELECT coalesce(sum(quantity * price), 0) \
                     FROM order_lines WHERE order_id = $1) WHERE id = $1 RETURNING total::text",
                )
                .await?,
            take_stock: client
                .prepare("UPDATE stock SET v = (v * 31 + $2) % 1000003, reserved = reserved + $3 WHERE product_id = $1")
                .await?,
            delete_order: client.prepare("DELETE FROM orders WHERE id = $1").await?,
            reprice: client
                .prepare(
                    "UPDATE products SET price = round(price * 1.07 % 90 + 1, 2), changed_at = now() WHERE id = $1",
                )
                .await?,
            event: client
                .prepare("INSERT INTO events (kind, order_id, data) VALUES ($1, $2, jsonb_build_object('by', $3::int))")
                .await?,
            history: client
                .prepare(
                    "SELECT o.id, o.total::text, count(*) FROM orders o JOIN order_lines l ON l.order_id = o.id \
                     WHERE o.customer_id = $1 GROUP BY o.id ORDER BY o.id DESC LIMIT 10",
                )
                .await?,
        })
    }
}

impl Session {
    /// Connects and prepares.
    ///
    /// # Errors
    /// When the database refuses.
    pub async fn open(place: &Endpoint, number: u32, tally: Arc<Tally>) -> Result<Self, Error> {
        let client = place.connect().await?;
        let prepared = Prepared::on(&client).await?;
        let chance = Chance::new(u64::from(number));
        Ok(Self { number, chance, prepared, customers: Vec::new(), orders: Vec::new(), tally, client })
    }

    /// One statement in the simple protocol; the first column of its first row.
    ///
    /// # Errors
    /// The database's.
    pub async fn simple(&self, sql: &str) -> Result<Option<String>, Error> {
        Tally::add(&self.tally.statements, 1);
        let messages = self.client.simple_query(sql).await?;
        let first = messages.iter().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => row.try_get(0).ok().flatten().map(str::to_owned),
            _ => None,
        });
        Ok(first)
    }

    /// A prepared statement; the number of its rows.
    ///
    /// # Errors
    /// The database's.
    pub async fn execute(&self, statement: &Statement, parameters: &[Parameter<'_>]) -> Result<u64, Error> {
        Tally::add(&self.tally.statements, 1);
        self.client.execute(statement, parameters).await
    }

    /// A prepared statement; its rows.
    ///
    /// # Errors
    /// The database's.
    pub async fn rows(&self, statement: &Statement, parameters: &[Parameter<'_>]) -> Result<Vec<Row>, Error> {
        Tally::add(&self.tally.statements, 1);
        self.client.query(statement, parameters).await
    }

    /// A statement in the extended protocol that is parsed each time.
    ///
    /// # Errors
    /// The database's.
    pub async fn unprepared(&self, sql: &str, parameters: &[Parameter<'_>]) -> Result<Vec<Row>, Error> {
        Tally::add(&self.tally.statements, 1);
        self.client.query(sql, parameters).await
    }

    /// COPY FROM STDIN of these lines.
    ///
    /// # Errors
    /// The database's.
    pub async fn copy_in(&self, sql: &str, lines: &[String]) -> Result<u64, Error> {
        Tally::add(&self.tally.statements, 1);
        let mut sink = pin!(self.client.copy_in::<_, Bytes>(sql).await?);
        for line in lines {
            sink.feed(Bytes::from(format!("{line}\n"))).await?;
        }
        sink.finish().await
    }

    /// After an error: what the database may well refuse is rolled back, anything else ends the demo.
    ///
    /// # Errors
    /// When the error isn't one of those that the load provokes.
    pub async fn recover(&self, activity: Activity, error: Error) -> Result<(), DemoError> {
        const MAY_BE: [&SqlState; 3] =
            [&SqlState::UNIQUE_VIOLATION, &SqlState::T_R_DEADLOCK_DETECTED, &SqlState::T_R_SERIALIZATION_FAILURE];
        let failed = |error| DemoError::database(format!("client {}, {activity:?}", self.number))(error);
        if !error.code().is_some_and(|code| MAY_BE.contains(&code)) {
            return Err(failed(error));
        }
        Tally::add(&self.tally.refused, 1);
        self.client.batch_execute("ROLLBACK").await.map_err(failed)
    }
}

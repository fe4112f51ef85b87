//! Carries steps by tokio-postgres.
use crate::player::{Lost, Player, Reply};
use crate::script::Step;
use crate::statement::Statement;
use crate::value::{literal, parameters};
use bytes::BytesMut;
use futures::{StreamExt, TryStreamExt};
use integration_tests::client::Endpoint;
use std::collections::HashMap;
use std::error::Error as _;
use std::future::Future;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio_postgres::types::{Format, IsNull, ToSql, Type, to_sql_checked};
use tokio_postgres::{Client, Error};

const LIMIT: Duration = Duration::from_secs(60);

/// A value of any type, sent as text.
#[derive(Debug)]
struct Text(Option<String>);

impl ToSql for Text {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        Ok(match &self.0 {
            None => IsNull::Yes,
            Some(text) => {
                out.extend_from_slice(text.as_bytes());
                IsNull::No
            }
        })
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    fn encode_format(&self, _: &Type) -> Format {
        Format::Text
    }

    to_sql_checked!();
}

/// A session by tokio-postgres.
#[derive(Debug)]
pub struct TokioPlayer {
    runtime: Handle,
    client: Client,
    prepared: HashMap<String, tokio_postgres::Statement>,
}

impl TokioPlayer {
    /// Logs in.
    pub fn connect(place: &Endpoint, runtime: &Handle) -> Result<TokioPlayer, String> {
        let connect = async { tokio::time::timeout(Duration::from_secs(10), place.try_connect()).await };
        let client = match runtime.block_on(connect) {
            Ok(Ok(client)) => client,
            Ok(Err(error)) => return Err(format!("{error:?}")),
            Err(_) => return Err("no answer within 10 s".to_owned()),
        };
        Ok(TokioPlayer { runtime: runtime.clone(), client, prepared: HashMap::new() })
    }

    fn within<T>(&self, work: impl Future<Output = T>) -> Result<T, Lost> {
        let timed = async { tokio::time::timeout(LIMIT, work).await };
        self.runtime.block_on(timed).map_err(|_| Lost(format!("no answer within {LIMIT:?}")))
    }

    /// By its text, so that it is parsed once in a session.
    fn prepare(&mut self, statement: &Statement, named: bool) -> Result<Result<Ready, Error>, Lost> {
        let (text, values) = parameters(&statement.sql);
        if let (true, Some(prepared)) = (named, self.prepared.get(&text)) {
            return Ok(Ok(Ready::of(prepared.clone(), values)));
        }
        let prepared = match self.within(self.client.prepare(&text))? {
            Ok(prepared) => prepared,
            Err(error) => return Ok(Err(error)),
        };
        if named {
            self.prepared.insert(text, prepared.clone());
        }
        Ok(Ok(Ready::of(prepared, values)))
    }

    fn simple(&self, statements: &[Statement]) -> Result<Vec<Reply>, Lost> {
        let texts: Vec<_> = statements.iter().map(|statement| literal(&statement.sql)).collect();
        match self.within(self.client.simple_query(&texts.join("; ")))? {
            Ok(messages) => {
                let mut replies = Vec::new();
                let mut odd = None;
                for message in messages {
                    let expected = statements.get(replies.len()).map_or(0, |statement| statement.columns);
                    match message {
                        tokio_postgres::SimpleQueryMessage::RowDescription(columns) if columns.len() != expected => {
                            odd = Some(format!("{} columns described instead of {expected}", columns.len()));
                        }
                        tokio_postgres::SimpleQueryMessage::Row(row) if row.len() != expected => {
                            odd = Some(format!("{} columns instead of {expected}", row.len()));
                        }
                        tokio_postgres::SimpleQueryMessage::CommandComplete(_) => {
                            replies.push(Reply { odd: odd.take(), ..Reply::default() });
                        }
                        _ => {}
                    }
                }
                Ok(replies)
            }
            // Which one failed isn't told: any of them may have.
            Err(error) => {
                failed(&error).map(|reply| vec![reply; if statements.len() == 1 { 1 } else { statements.len() }])
            }
        }
    }

    fn extended(&mut self, statements: &[Statement], named: bool) -> Result<Vec<Reply>, Lost> {
        let mut ready = Vec::new();
        for statement in statements {
            match self.prepare(statement, named)? {
                Ok(prepared) => ready.push((prepared, statement.columns)),
                Err(error) => return failed(&error).map(|reply| vec![reply; statements.len()]),
            }
        }
        let runs = ready.iter().map(|(ready, columns)| ready.run(&self.client, *columns));
        let results = self.within(futures::future::join_all(runs))?;
        results.into_iter().map(|result| result.or_else(|error| failed(&error))).collect()
    }
}

/// A prepared statement with its values.
struct Ready {
    prepared: tokio_postgres::Statement,
    values: Vec<Text>,
}

impl Ready {
    fn of(prepared: tokio_postgres::Statement, values: Vec<Option<String>>) -> Ready {
        Ready { prepared, values: values.into_iter().map(Text).collect() }
    }

    async fn run(&self, client: &Client, columns: usize) -> Result<Reply, Error> {
        let mut reply = Reply::default();
        let described = self.prepared.columns().len();
        if described != columns {
            reply.odd = Some(format!("{described} columns described instead of {columns}"));
        }
        let rows = client.query_raw(&self.prepared, &self.values).await?;
        futures::pin_mut!(rows);
        while let Some(row) = rows.try_next().await? {
            if row.len() != columns {
                reply.odd = Some(format!("{} columns instead of {columns}", row.len()));
            }
        }
        drop(rows.next().await);
        Ok(reply)
    }
}

fn failed(error: &Error) -> Result<Reply, Lost> {
    match error.as_db_error() {
        Some(database) => {
            let error = Some((database.code().code().to_owned(), database.message().to_owned()));
            Ok(Reply { error, ..Reply::default() })
        }
        None => Err(Lost(format!("{error}: {:?}", error.source()))),
    }
}

impl Player for TokioPlayer {
    fn play(&mut self, step: &Step) -> Result<Vec<Reply>, Lost> {
        match step {
            Step::Simple(statements) => self.simple(statements),
            Step::Extended { statement, named, .. } => self.extended(std::slice::from_ref(statement), *named),
            Step::Pipeline { statements, .. } => self.extended(statements, true),
            _ => Ok(Vec::new()),
        }
    }

    fn control(&mut self, sql: &str) -> Result<Reply, Lost> {
        match self.within(self.client.simple_query(sql))? {
            Ok(_) => Ok(Reply::default()),
            Err(error) => failed(&error),
        }
    }
}

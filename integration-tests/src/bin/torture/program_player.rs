//! Carries steps by a driver of another language: a program that is given steps as lines of JSON and answers so.
use crate::player::{Lost, Player, Reply};
use crate::script::Step;
use crate::statement::Statement;
use crate::value::{literal, parameters};
use integration_tests::client::Endpoint;
use integration_tests::drivers::Driver;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(60);

/// A session by a program.
#[derive(Debug)]
pub struct ProgramPlayer {
    child: Child,
    stdin: Option<ChildStdin>,
    answers: Receiver<String>,
}

impl ProgramPlayer {
    /// Starts it and waits until it has logged in.
    pub fn connect(place: &Endpoint, driver: Driver) -> Result<ProgramPlayer, String> {
        let mut command = driver.player();
        command.envs(place.environment()).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().map_err(|error| format!("{driver:?}: {error}"))?;
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        let (sender, answers) = sync_channel(8);
        std::thread::spawn(move || {
            let Some(stdout) = stdout else { return };
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        let player = ProgramPlayer { child, stdin, answers };
        player.answer(&[]).map_err(|Lost(why)| format!("{driver:?}: {why}"))?;
        Ok(player)
    }

    fn exchange(&mut self, kind: &str, named: Option<bool>, statements: &[Statement]) -> Result<Vec<Reply>, Lost> {
        let told: Vec<Value> = statements.iter().map(told).collect();
        let line = json!({ "kind": kind, "named": named, "statements": told }).to_string();
        let stdin = self.stdin.as_mut().ok_or_else(|| Lost("it has no input".to_owned()))?;
        writeln!(stdin, "{line}").map_err(|error| Lost(error.to_string()))?;
        self.answer(statements)
    }

    fn answer(&self, statements: &[Statement]) -> Result<Vec<Reply>, Lost> {
        let line = self.answers.recv_timeout(LIMIT).map_err(|error| Lost(error.to_string()))?;
        let answer: Value = serde_json::from_str(&line).map_err(|error| Lost(format!("{error}: {line}")))?;
        if let Some(lost) = answer["lost"].as_str() {
            return Err(Lost(lost.to_owned()));
        }
        let replies = answer["replies"].as_array().cloned().unwrap_or_default();
        Ok(replies.iter().zip(statements.iter().map(Some).chain(std::iter::repeat(None))).map(reply).collect())
    }
}

fn told(statement: &Statement) -> Value {
    let (text, values) = parameters(&statement.sql);
    let copy = statement.copy.as_deref().map(|data| String::from_utf8_lossy(data).into_owned());
    json!({ "literal": literal(&statement.sql), "text": text, "values": values, "copy": copy })
}

fn reply((told, statement): (&Value, Option<&Statement>)) -> Reply {
    if let Some(state) = told["state"].as_str() {
        let message = told["message"].as_str().unwrap_or_default();
        return Reply { error: Some((state.to_owned(), message.to_owned())), odd: None };
    }
    let (columns, expected) = (told["columns"].as_u64().unwrap_or_default(), statement.map_or(0, |s| s.columns as u64));
    let odd = (columns != expected).then(|| format!("{columns} columns instead of {expected}"));
    Reply { error: None, odd }
}

impl Player for ProgramPlayer {
    fn play(&mut self, step: &Step) -> Result<Vec<Reply>, Lost> {
        match step {
            Step::Simple(statements) if statements.len() > 1 => self.exchange("string", None, statements),
            Step::Simple(statements) => self.exchange("one", None, statements),
            Step::Extended { statement, named, .. } => {
                self.exchange("one", Some(*named), std::slice::from_ref(statement))
            }
            Step::Pipeline { statements, .. } => self.exchange("pipeline", Some(true), statements),
            Step::Copy(statement) => self.exchange("one", None, std::slice::from_ref(statement)),
            _ => Ok(Vec::new()),
        }
    }

    fn control(&mut self, sql: &str) -> Result<Reply, Lost> {
        let replies = self.exchange("one", None, &[Statement::plain("control", sql)])?;
        Ok(replies.into_iter().next().unwrap_or_default())
    }
}

impl Drop for ProgramPlayer {
    fn drop(&mut self) {
        // The end of its input ends it.
        drop(self.stdin.take());
        if integration_tests::process::wait(&mut self.child, Duration::from_secs(10)).is_none() {
            drop(self.child.kill());
            drop(self.child.wait());
        }
    }
}

//! Through pgshadow a client sees, byte for byte, what the database itself would have sent.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by a panic")]

mod copies;
mod extended;
mod generated;
mod generator;
mod in_parts;
mod logins;
mod malformed;
mod messages;
mod names;
mod not_yet;
mod notation;
mod past;
mod pooled;
mod shrink;
mod simple;
mod stage;
mod thief;
mod transactions;
mod transcript;
mod twins;
mod wide;

use messages::q;
use stage::Stage;
use transcript::{End, Pace};

#[test]
fn a_missing_notice_is_noticed() {
    let stage = Stage::old();
    let messages = [q("UPDATE noisy SET v = 5 WHERE id = 1")];
    let [direct, mut proxied] = stage.transcripts(&[], &messages, (Pace::Stepwise, End::Query));
    assert_eq!(direct.difference(&proxied), None);
    let notice = proxied.frames.iter().rposition(|frame| frame.tag == b'N').expect("the trigger says something");
    proxied.frames.remove(notice);
    let difference = direct.difference(&proxied).expect("one frame less");
    assert!(difference.contains("at the end: UPDATE of 1"), "{difference}");
}

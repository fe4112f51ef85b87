//! What no driver sends, and sessions that end without saying so.
use crate::messages::{Message, bind, describe_statement, execute, message, open, parse, q, raw, sync, terminate};
use crate::stage::Stage;
use crate::transcript::End;

#[test]
fn broken_messages_and_ends() {
    let up = "UPDATE t SET v = 1 WHERE id = 1";
    let sessions: Vec<(&str, Vec<Message>)> = vec![
        ("unknown type", vec![q(up), message(b'z', b"abc")]),
        ("length of 3", vec![raw(b"Q\0\0\0\x03SELECT 1\0")]),
        ("negative length", vec![raw(b"Q\xff\xff\xff\xfbSELECT 1\0")]),
        ("huge length", vec![raw(b"Q\x7f\xff\xff\xffSELECT 1\0")]),
        ("no NUL", vec![message(b'Q', b"SELECT 1")]),
        ("embedded NUL", vec![message(b'Q', b"SELECT 1\0DELETE FROM t\0"), q("SELECT count(*) FROM t")]),
        ("describe of nothing", vec![message(b'D', b"Zx\0"), sync()]),
        ("close of nothing", vec![message(b'C', b"Zx\0"), sync()]),
        ("parse cut short", vec![message(b'P', b"x\0UPDATE t SET v = 1\0"), sync(), q("SELECT 1")]),
        ("bind counts wrong", vec![parse("", up), message(b'B', b"\0\0\0\0\0\x05\0\0"), sync(), q("SELECT 1")]),
        ("length of sync", vec![message(b'S', b"abc"), q("SELECT 1")]),
        ("end after a query", vec![q(up)]),
        ("end without sync", open(up, &[])),
        ("end in a transaction", vec![q("BEGIN"), q(up), q("SELECT 1")]),
        ("end in a message", vec![q("BEGIN"), q(up), raw(b"Q\0\0\0\x40COMM")]),
        ("terminate", vec![q(up), terminate()]),
        ("terminate in a transaction", vec![q("BEGIN"), q(up), terminate()]),
        ("terminate without sync", [open(up, &[]), vec![terminate()]].concat()),
        ("after terminate", vec![terminate(), q("DELETE FROM t")]),
        ("described", vec![parse("s", up), describe_statement("s"), bind("", "s", &[]), execute("", 0)]),
    ];
    Stage::old().expect_same_with(&[], End::HalfClose, &sessions);
}

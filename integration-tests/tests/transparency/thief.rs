//! A pgshadow with a fault: of each connection it keeps the first NoticeResponse to itself.
use integration_tests::port;
use integration_tests::raw::{Frame, RawClient};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};

/// Takes connections for what listens on `port`; returns where it does.
pub fn in_front_of(port: u16) -> u16 {
    let own = port::free();
    let listener = TcpListener::bind(("127.0.0.1", own)).expect("a free port");
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            std::thread::spawn(move || relay(client, port));
        }
    });
    own
}

fn relay(mut client: TcpStream, port: u16) -> std::io::Result<()> {
    let mut server = RawClient::connect(port)?;
    let (mut from, mut to) = (client.try_clone()?, server.second()?);
    std::thread::spawn(move || {
        let mut bytes = [0; 8192];
        while let Ok(length @ 1..) = from.read(&mut bytes) {
            drop(to.send(&bytes[..length]));
        }
        drop(to.half_close());
    });
    let mut kept = false;
    while let Ok(Frame { tag, body }) = server.receive() {
        if tag == b'N' && !std::mem::replace(&mut kept, true) {
            continue;
        }
        let length = (body.len() as u32 + 4).to_be_bytes();
        client.write_all(&[&[tag], length.as_slice(), &body].concat())?;
    }
    client.shutdown(Shutdown::Both)
}

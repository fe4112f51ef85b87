//! A plain TCP forwarder, `forwarder LISTEN TARGET`: what any hop between client and server costs. `make bench` holds
//! pgshadow against it.
use std::env;
use std::io::{Error, ErrorKind, Result};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};

#[tokio::main]
async fn main() -> Result<()> {
    let mut arguments = env::args().skip(1);
    let (Some(listen), Some(target)) = (arguments.next(), arguments.next()) else {
        return Err(Error::new(ErrorKind::InvalidInput, "usage: forwarder LISTEN TARGET"));
    };
    let listener = TcpListener::bind(listen).await?;
    loop {
        let (client, _) = listener.accept().await?;
        let target = target.clone();
        tokio::spawn(async move {
            if let Err(error) = forward(client, &target).await {
                eprintln!("forwarder: {error}");
            }
        });
    }
}

async fn forward(mut client: TcpStream, target: &str) -> Result<()> {
    let mut server = TcpStream::connect(target).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    copy_bidirectional(&mut client, &mut server).await?;
    Ok(())
}

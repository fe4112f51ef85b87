//! Bytes on their way to a peer.
use bytes::{Buf, Bytes};
use std::collections::VecDeque;
use std::io::{IoSlice, Result};
use tokio::io::{AsyncWrite, AsyncWriteExt};

/// Slices written at once.
const SLICES_MAX: usize = 64;

/// A queue of byte slices, written in order without being copied together.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    parts: VecDeque<Bytes>,
    length: usize,
}

impl Outbox {
    pub fn push(&mut self, bytes: Bytes) {
        if !bytes.is_empty() {
            self.length += bytes.len();
            self.parts.push_back(bytes);
        }
    }

    pub fn len(&self) -> usize {
        self.length
    }

    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Writes once; cancel-safe, since what was written is taken off only after the write.
    pub async fn write_to(&mut self, peer: &mut (impl AsyncWrite + Unpin)) -> Result<()> {
        let slices: Vec<IoSlice<'_>> = self.parts.iter().take(SLICES_MAX).map(|p| IoSlice::new(p)).collect();
        let written = peer.write_vectored(&slices).await?;
        if written == 0 && self.length > 0 {
            return Err(std::io::ErrorKind::WriteZero.into());
        }
        self.advance(written);
        Ok(())
    }

    fn advance(&mut self, mut written: usize) {
        self.length -= written;
        while let Some(front) = self.parts.front_mut() {
            if front.len() > written {
                front.advance(written);
                return;
            }
            written -= front.len();
            self.parts.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn writes_everything_in_order() {
        let mut outbox = Outbox::default();
        (0..200u8).for_each(|n| outbox.push(Bytes::from(vec![n; usize::from(n)])));
        let expected: Vec<u8> = (0..200u8).flat_map(|n| vec![n; usize::from(n)]).collect();
        let (mut near, mut far) = tokio::io::duplex(100);
        let reader = tokio::spawn(async move {
            let mut all = Vec::new();
            tokio::io::AsyncReadExt::read_to_end(&mut far, &mut all).await.unwrap();
            all
        });
        while !outbox.is_empty() {
            outbox.write_to(&mut near).await.unwrap();
        }
        drop(near);
        assert_eq!(reader.await.unwrap(), expected);
    }
}

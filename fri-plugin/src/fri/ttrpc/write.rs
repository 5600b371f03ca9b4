//! Sends frames, several short ones at once.

use super::frame::Frame;
use crate::fri::PATIENCE;
use prost::bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::time::timeout;

/// Payloads up to this are copied, so that several frames go with one system call, bytes.
const SHORT: usize = 16 << 10;

/// Sends what comes until nobody sends any more, or the peer does not take it.
pub async fn run(mut to: impl AsyncWrite + Unpin, mut frames: mpsc::Receiver<Frame>) {
    let mut buffer = BytesMut::new();
    while let Some(frame) = frames.recv().await {
        let mut next = Some(frame);
        while let Some(frame) = next {
            buffer.extend_from_slice(&frame.head());
            if frame.payload.len() <= SHORT {
                buffer.extend_from_slice(&frame.payload);
            } else if !send(&mut to, &mut buffer, frame.payload).await {
                return;
            }
            next = if buffer.len() < SHORT { frames.try_recv().ok() } else { None };
        }
        if !buffer.is_empty() && !send(&mut to, &mut buffer, Bytes::new()).await {
            return;
        }
    }
}

/// Whether the peer has taken it all.
async fn send(to: &mut (impl AsyncWrite + Unpin), buffer: &mut BytesMut, payload: Bytes) -> bool {
    let mut both = buffer.split().freeze().chain(payload);
    while both.has_remaining() {
        // Progress is enough: a slow peer is no dead one.
        match timeout(PATIENCE, to.write_buf(&mut both)).await {
            Ok(Ok(n)) if n > 0 => {}
            _ => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fri::ttrpc::frame::read;

    #[tokio::test]
    async fn short_and_long_frames_arrive_in_their_order() {
        let (ours, mut theirs) = tokio::io::duplex(4096);
        let (sender, receiver) = mpsc::channel(8);
        let writer = tokio::spawn(run(ours, receiver));
        let sizes = [0, 10, SHORT + 1, 3, 100_000, 0];
        let sending = tokio::spawn(async move {
            for (n, size) in (0..).zip(sizes) {
                sender.send(Frame::data(n, vec![7; size].into())).await.unwrap();
            }
        });
        for (n, size) in (0..).zip(sizes) {
            let frame = read(&mut theirs, &mut crate::room::Room::new(1 << 20).share()).await.unwrap();
            assert_eq!((frame.header.stream_id, frame.payload.len()), (n, size));
        }
        sending.await.unwrap();
        writer.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_takes_nothing_is_given_up() {
        let (ours, _theirs) = tokio::io::duplex(16);
        let (sender, receiver) = mpsc::channel(8);
        sender.send(Frame::data(1, vec![7; 100].into())).await.unwrap();
        run(ours, receiver).await;
        assert!(sender.is_closed());
    }
}

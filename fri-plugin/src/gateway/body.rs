//! Bodies of requests: no longer than allowed, not for longer than allowed, and all together within a bound.

use crate::room::{Full, Room, Share};
use axum::body::{Body, Bytes};
use axum::http::HeaderMap;
use axum::http::header::{CONTENT_LENGTH, EXPECT};
use futures::StreamExt;
use std::time::Duration;

/// Of a body that is too long so much is taken and thrown away, so that a client that writes first reads the answer.
const DISCARDED: usize = 64 << 20;

/// Why there is no body.
#[derive(Debug, PartialEq, Eq)]
pub enum BodyError {
    /// So long or longer.
    TooLong(u64),
    /// It did not arrive in time.
    TooSlow,
    /// Too many bytes of other requests are at work.
    NoRoom,
    /// The client stopped in the middle, or broke the protocol.
    Broken,
}

/// A body, and its share of the bound.
#[derive(Debug)]
pub struct Held {
    /// The bytes.
    pub bytes: Bytes,
    /// Given back with it.
    pub share: Share,
}

/// Reads a body.
pub async fn read(
    headers: &HeaderMap,
    body: Body,
    limit: usize,
    time: Duration,
    room: &Room,
) -> Result<Held, BodyError> {
    let announced =
        headers.get(CONTENT_LENGTH).and_then(|v| v.to_str().ok()).and_then(|v| v.parse::<u64>().ok());
    let reading = async {
        match announced {
            Some(n) if n > limit as u64 => {
                // A client that asks first is told at once: it is asked for the body by whoever reads it.
                if n <= DISCARDED as u64 && !headers.contains_key(EXPECT) {
                    discard(body).await;
                }
                Err(BodyError::TooLong(n))
            }
            _ => collect(body, limit, usize::try_from(announced.unwrap_or(0)).unwrap_or(0), room).await,
        }
    };
    tokio::time::timeout(time, reading).await.unwrap_or(Err(BodyError::TooSlow))
}

async fn collect(body: Body, limit: usize, announced: usize, room: &Room) -> Result<Held, BodyError> {
    let mut stream = body.into_data_stream();
    let mut share = room.share();
    let (mut first, mut all): (Bytes, Vec<u8>) = (Bytes::new(), Vec::new());
    let mut length = 0;
    while let Some(chunk) = stream.next().await {
        let chunk = chunk.map_err(|_| BodyError::Broken)?;
        length += chunk.len();
        if length > limit {
            let mut more = 0;
            while let Some(Ok(chunk)) = stream.next().await {
                more += chunk.len();
                if more > DISCARDED {
                    break;
                }
            }
            return Err(BodyError::TooLong(length as u64 + more as u64));
        }
        share.add(chunk.len()).map_err(|Full| BodyError::NoRoom)?;
        if first.is_empty() && all.is_empty() {
            first = chunk;
            continue;
        }
        if !first.is_empty() {
            all.reserve_exact(announced.max(first.len() + chunk.len()));
            all.extend_from_slice(&std::mem::take(&mut first));
        }
        all.extend_from_slice(&chunk);
    }
    let bytes = if all.is_empty() { first } else { all.into() };
    Ok(Held { bytes, share })
}

async fn discard(body: Body) {
    let mut stream = body.into_data_stream();
    while let Some(Ok(_)) = stream.next().await {}
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn take(chunks: &[&'static str], limit: usize, room: &Room) -> Result<Held, BodyError> {
        let chunks: Vec<Result<&str, std::io::Error>> = chunks.iter().map(|c| Ok(*c)).collect();
        let body = Body::from_stream(futures::stream::iter(chunks));
        read(&HeaderMap::new(), body, limit, Duration::from_secs(5), room).await
    }

    #[tokio::test]
    async fn a_body_is_put_together_within_its_limit() {
        let room = Room::new(10);
        for (chunks, want) in [(&["abc"][..], "abc"), (&[], ""), (&["a", "", "b", "cd"], "abcd")] {
            assert_eq!(take(chunks, 4, &room).await.unwrap().bytes, want);
        }
        assert_eq!(take(&["abc", "de"], 4, &room).await.unwrap_err(), BodyError::TooLong(5));
        assert_eq!(room.free(), 10);
    }

    #[tokio::test]
    async fn bodies_share_a_bound_and_give_their_share_back() {
        let room = Room::new(5);
        let first = take(&["abc", "d"], 9, &room).await.unwrap();
        assert_eq!(take(&["a", "b"], 9, &room).await.unwrap_err(), BodyError::NoRoom);
        drop(first);
        assert!(take(&["abcde"], 9, &room).await.is_ok());
    }

    #[tokio::test]
    async fn a_body_that_does_not_come_is_not_waited_for() {
        let body = Body::from_stream(futures::stream::pending::<Result<&str, std::io::Error>>());
        let room = Room::new(5);
        let result = read(&HeaderMap::new(), body, 9, Duration::from_millis(20), &room).await;
        assert_eq!(result.unwrap_err(), BodyError::TooSlow);
    }
}

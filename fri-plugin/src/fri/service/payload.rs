//! Events in chunks, answers in chunks.

use crate::fri::CHUNK;
use crate::fri::error::FriError;
use crate::room::{Full, Room, Share};
use futures::{Stream, StreamExt};
use prost::bytes::{Bytes, BytesMut};
use seedtree::runtime::MAX_PAYLOAD;
use std::future::Future;
use std::time::Duration;

/// Takes events in, within a bound on the bytes of all that are held.
#[derive(Clone, Debug)]
pub struct Intake {
    /// For all of them.
    pub room: Room,
    /// For a request to arrive, its event whole.
    pub time: Duration,
}

/// An event with its share of the bound.
struct Held(Bytes, #[expect(dead_code, reason = "held, not read")] Share);

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Intake {
    /// What is arriving, where it does in time.
    pub async fn in_time<T>(
        &self,
        arriving: impl Future<Output = Result<T, FriError>>,
    ) -> Result<T, FriError> {
        let late = FriError::TooSlow { what: "the request", key: "fri.event_timeout_ms" };
        tokio::time::timeout(self.time, arriving).await.unwrap_or(Err(late))
    }

    /// Collects an event, which has its share of the bound until the last copy of it is dropped. A single piece, which most events are, is not
    /// copied. To be done [`Intake::in_time`].
    pub async fn collect(
        &self,
        first: Bytes,
        rest: impl Stream<Item = Result<Bytes, FriError>> + Unpin,
    ) -> Result<Bytes, FriError> {
        gather(first, rest, self.room.share()).await
    }
}

async fn gather(
    first: Bytes,
    mut rest: impl Stream<Item = Result<Bytes, FriError>> + Unpin,
    mut share: Share,
) -> Result<Bytes, FriError> {
    let mut take = |length: usize, chunk: &Bytes| {
        if length + chunk.len() > MAX_PAYLOAD {
            return Err(FriError::TooLarge { what: "the event", limit: MAX_PAYLOAD as u64 });
        }
        share.add(chunk.len()).map_err(|Full| FriError::NO_ROOM)
    };
    take(0, &first)?;
    let mut one = first;
    let mut many = BytesMut::new();
    while let Some(chunk) = rest.next().await {
        let chunk = chunk?;
        take(one.len() + many.len(), &chunk)?;
        if many.is_empty() && one.is_empty() {
            one = chunk;
            continue;
        }
        if many.is_empty() {
            many.reserve(one.len() + chunk.len());
            many.extend_from_slice(&std::mem::take(&mut one));
        }
        many.extend_from_slice(&chunk);
    }
    let event = if many.is_empty() { one } else { many.freeze() };
    Ok(Bytes::from_owner(Held(event, share)))
}

/// A chunk as a client may send it.
pub fn chunk(bytes: Bytes) -> Result<Bytes, FriError> {
    if bytes.len() > CHUNK {
        return Err(FriError::TooLarge { what: "a chunk", limit: CHUNK as u64 });
    }
    Ok(bytes)
}

/// Splits an answer, without copying it.
pub fn chunks(mut rest: Bytes) -> impl Iterator<Item = Bytes> + Send {
    std::iter::from_fn(move || (!rest.is_empty()).then(|| rest.split_to(rest.len().min(CHUNK))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::stream;

    fn intake(bytes: usize) -> Intake {
        Intake { room: Room::new(bytes as u64), time: Duration::from_secs(30) }
    }

    async fn collected(first: &'static [u8], rest: Vec<Vec<u8>>) -> Result<Bytes, FriError> {
        let rest = stream::iter(rest.into_iter().map(|c| Ok(c.into())));
        intake(2 * MAX_PAYLOAD).collect(Bytes::from_static(first), rest).await
    }

    #[tokio::test]
    async fn an_event_is_the_sum_of_its_pieces() {
        assert_eq!(collected(b"", vec![]).await.unwrap(), "");
        assert_eq!(collected(b"ab", vec![]).await.unwrap(), "ab");
        assert_eq!(collected(b"", vec![b"cd".to_vec()]).await.unwrap(), "cd");
        assert_eq!(collected(b"ab", vec![b"cd".to_vec(), vec![], b"e".to_vec()]).await.unwrap(), "abcde");
        assert_eq!(collected(b"", vec![vec![], b"x".to_vec(), b"y".to_vec()]).await.unwrap(), "xy");
        let most = vec![vec![b' '; MAX_PAYLOAD / 2]; 2];
        assert_eq!(collected(b"", most.clone()).await.unwrap().len(), MAX_PAYLOAD);
        assert_eq!(collected(b"1", most).await.unwrap_err().code(), "Request.TooLarge");
    }

    #[tokio::test]
    async fn events_share_a_bound_and_half_an_event_waits_for_nobody() {
        let intake = intake(10);
        let whole = intake.collect(Bytes::from_static(b"1234"), stream::empty()).await.unwrap();
        // Two that have begun and want more than is left: the second to ask is refused, and the first gets its room.
        let (one, first) = tokio::sync::mpsc::channel(1);
        let first = tokio_stream::wrappers::ReceiverStream::new(first);
        let collecting = tokio::spawn({
            let intake = intake.clone();
            async move { intake.collect(Bytes::from_static(b"123"), first).await }
        });
        while intake.room.free() > 3 {
            tokio::task::yield_now().await;
        }
        let more = stream::iter([Ok(Bytes::from_static(b"1")), Ok(Bytes::from_static(b"234"))]);
        let refused = intake.collect(Bytes::new(), more).await.unwrap_err();
        assert_eq!((refused.code(), refused.status()), ("Node.Overloaded", tonic::Code::ResourceExhausted));
        one.send(Ok(Bytes::from_static(b"456"))).await.unwrap();
        drop(one);
        let second = collecting.await.unwrap().unwrap();
        assert_eq!((second.as_ref(), intake.room.free()), (&b"123456"[..], 0));
        drop((whole, second));
        assert_eq!(intake.room.free(), 10);
    }

    #[tokio::test(start_paused = true)]
    async fn an_event_that_stalls_or_trickles_is_ended_and_gives_its_room_back() {
        let intake = intake(1000);
        let stalled = intake.collect(Bytes::from_static(b"1"), stream::pending());
        let stalled = intake.in_time(stalled).await.unwrap_err();
        assert_eq!(stalled.code(), "Request.TooSlow");
        let trickle = stream::repeat(()).then(|()| async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            Ok(Bytes::from_static(b"1"))
        });
        let trickled = intake.in_time(intake.collect(Bytes::new(), Box::pin(trickle))).await.unwrap_err();
        assert_eq!((trickled.code(), intake.room.free()), ("Request.TooSlow", 1000));
    }

    #[test]
    fn an_answer_is_split_without_a_rest() {
        assert_eq!(chunks(Bytes::new()).count(), 0);
        let sizes = |n: usize| chunks(vec![7; n].into()).map(|c| c.len()).collect::<Vec<_>>();
        assert_eq!(sizes(CHUNK), [CHUNK]);
        assert_eq!(sizes(2 * CHUNK + 1), [CHUNK, CHUNK, 1]);
        assert!(chunk(vec![0; CHUNK].into()).is_ok() && chunk(vec![0; CHUNK + 1].into()).is_err());
    }
}

//! Events in chunks, answers in chunks.

use crate::fri::CHUNK;
use crate::fri::error::FriError;
use futures::{Stream, StreamExt};
use prost::bytes::{Bytes, BytesMut};
use seedtree::runtime::MAX_PAYLOAD;

/// Collects an event. A single piece, which most events are, is not copied.
pub async fn collect(
    first: Bytes,
    mut rest: impl Stream<Item = Result<Bytes, FriError>> + Unpin,
) -> Result<Bytes, FriError> {
    let mut one = first;
    let mut many = BytesMut::new();
    while let Some(chunk) = rest.next().await {
        let chunk = chunk?;
        if one.len() + many.len() + chunk.len() > MAX_PAYLOAD {
            return Err(FriError::TooLarge { what: "the event", limit: MAX_PAYLOAD as u64 });
        }
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
    if one.len() > MAX_PAYLOAD {
        return Err(FriError::TooLarge { what: "the event", limit: MAX_PAYLOAD as u64 });
    }
    Ok(if many.is_empty() { one } else { many.freeze() })
}

/// A chunk as a client may send it.
pub fn chunk(bytes: Bytes) -> Result<Bytes, FriError> {
    if bytes.len() > CHUNK {
        return Err(FriError::TooLarge { what: "a chunk", limit: CHUNK as u64 });
    }
    Ok(bytes)
}

/// Splits an answer, without copying it.
pub fn chunks(answer: Vec<u8>) -> impl Iterator<Item = Bytes> + Send {
    let mut rest = Bytes::from(answer);
    std::iter::from_fn(move || (!rest.is_empty()).then(|| rest.split_to(rest.len().min(CHUNK))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::stream;

    async fn collected(first: &'static [u8], rest: Vec<Vec<u8>>) -> Result<Bytes, FriError> {
        collect(Bytes::from_static(first), stream::iter(rest.into_iter().map(|c| Ok(c.into())))).await
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

    #[test]
    fn an_answer_is_split_without_a_rest() {
        assert_eq!(chunks(Vec::new()).count(), 0);
        let sizes = |n: usize| chunks(vec![7; n]).map(|c| c.len()).collect::<Vec<_>>();
        assert_eq!(sizes(CHUNK), [CHUNK]);
        assert_eq!(sizes(2 * CHUNK + 1), [CHUNK, CHUNK, 1]);
        assert!(chunk(vec![0; CHUNK].into()).is_ok() && chunk(vec![0; CHUNK + 1].into()).is_err());
    }
}

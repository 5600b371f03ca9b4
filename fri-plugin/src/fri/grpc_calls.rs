//! What is around every call of gRPC: it is counted for its connection's place, and a message takes room while it is arriving.

use super::error::FriError;
use super::grpc::{explained, status};
use super::places::{Call, Place};
use crate::room::{Full, Share};
use futures::future::BoxFuture;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use prost::bytes::Bytes;
use std::pin::Pin;
use std::task::{Context, Poll};
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::http::{Request, Response};
use tower::Service;

/// Length of what is before a message (gRPC over HTTP2, "Length-Prefixed-Message"), bytes.
const PREFIX: usize = 5;

/// The services with what is around them.
#[derive(Clone, Debug)]
pub struct Calls<S> {
    pub inner: S,
    pub room: crate::room::Room,
}

impl<S> Service<Request<Body>> for Calls<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Response<Body>, S::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let call = request.extensions().get::<Place>().map(Place::call);
        let by = Arriving { share: self.room.share(), message: Message::default() };
        let request = request.map(|body| Body::new(Watched { body, by }));
        let answer = self.inner.call(request);
        Box::pin(async move {
            let answer = explained(answer.await?);
            Ok(answer.map(|body| Body::new(Watched { body, by: call })))
        })
    }
}

/// A body, and who looks at what comes of it.
struct Watched<W> {
    body: Body,
    by: W,
}

/// Who looks at the bytes of a body.
trait Watch: Unpin {
    /// The next bytes. An error ends the body.
    fn data(&mut self, data: &[u8]) -> Result<(), Status>;
}

/// For the body of an answer: the call is under way until it has gone.
impl Watch for Option<Call> {
    fn data(&mut self, _: &[u8]) -> Result<(), Status> {
        Ok(())
    }
}

/// For the body of a request: bytes of a message that is not whole yet are held by the library, and have a share of the bound. A whole one
/// goes to its method, which takes its own share where it keeps it.
struct Arriving {
    share: Share,
    message: Message,
}

impl Watch for Arriving {
    fn data(&mut self, data: &[u8]) -> Result<(), Status> {
        self.message.take(data, &mut self.share).map_err(|Full| {
            self.share.clear();
            status(&FriError::NO_ROOM)
        })
    }
}

impl<W: Watch> HttpBody for Watched<W> {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &polled
            && let Some(data) = frame.data_ref()
            && let Err(status) = self.by.data(data)
        {
            return Poll::Ready(Some(Err(status)));
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// How much has come of a message.
#[derive(Debug, Default)]
struct Message {
    prefix: [u8; PREFIX],
    /// Bytes of the prefix that are there.
    begun: usize,
    /// Bytes of the message that are not.
    left: usize,
}

impl Message {
    /// Some bytes more, which begin where the last ones ended.
    fn take(&mut self, mut data: &[u8], share: &mut Share) -> Result<(), Full> {
        while !data.is_empty() {
            if self.begun < PREFIX {
                let n = data.len().min(PREFIX - self.begun);
                self.prefix[self.begun..self.begun + n].copy_from_slice(&data[..n]);
                self.begun += n;
                data = &data[n..];
                if self.begun == PREFIX {
                    let [_, a, b, c, d] = self.prefix;
                    self.left = usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or(usize::MAX);
                }
            } else {
                let n = data.len().min(self.left);
                share.add(n)?;
                self.left -= n;
                data = &data[n..];
            }
            if self.begun == PREFIX && self.left == 0 {
                self.begun = 0;
                share.clear();
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::room::Room;
    use proptest::prelude::*;

    #[test]
    fn half_a_message_has_room_and_a_whole_one_gives_it_back() {
        let room = Room::new(10);
        let (mut message, mut share) = (Message::default(), room.share());
        message.take(&[0, 0, 0, 0, 9, 1, 2, 3], &mut share).unwrap();
        assert_eq!(room.free(), 7);
        message.take(&[4, 5, 6, 7, 8, 9, 0, 0, 0], &mut share).unwrap();
        assert_eq!(room.free(), 10);
        message.take(&[0, 11, 1], &mut share).unwrap();
        assert_eq!(message.take(&[0; 10], &mut share), Err(Full));
    }

    proptest! {
        #[test]
        fn where_messages_are_cut_does_not_matter(
            lengths in prop::collection::vec(0_u32..600, 0..8),
            cut in 1_usize..700,
        ) {
            let room = Room::new(600);
            let (mut message, mut share) = (Message::default(), room.share());
            let mut bytes = Vec::new();
            for length in &lengths {
                bytes.push(0);
                bytes.extend(length.to_be_bytes());
                bytes.extend(std::iter::repeat_n(7, usize::try_from(*length).unwrap()));
            }
            for piece in bytes.chunks(cut) {
                prop_assert_eq!(message.take(piece, &mut share), Ok(()));
            }
            prop_assert_eq!((message.begun, message.left, room.free()), (0, 0, 600));
        }
    }
}

//! One connection: its calls, each in a task of its own, and its frames in their order.

use super::frame::{Broken, Frame, read};
use super::methods::{Method, named};
use super::write;
use crate::daemon::error::DaemonError;
use crate::fri::CALLS;
use crate::fri::MESSAGE;
use crate::fri::error::FriError;
use crate::fri::listen::Connection;
use crate::fri::places::Place;
use crate::fri::service::{Incoming, Service};
use crate::rarely::Rarely;
use crate::room::Share;
use futures::{FutureExt, StreamExt, stream};
use prost::bytes::Bytes;
use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use ttrpc::proto::{
    Codec, FLAG_NO_DATA, FLAG_REMOTE_CLOSED, FLAG_REMOTE_OPEN, MESSAGE_TYPE_DATA, MESSAGE_TYPE_REQUEST,
    MessageHeader, Request,
};

/// Messages of a call that wait for it, and frames that wait for being sent: bounds for what one connection holds.
const WAITING: usize = 4;
/// Connections that were closed for what came over them.
static CLOSED: Rarely = Rarely::new();
/// Most that is read at once; a longer payload is read into its place.
const READ: usize = 16 << 10;

/// A message of a call, and its share of the bound on bytes until the call has taken it.
type Waiting = (Result<Bytes, FriError>, Share);
/// A call under way.
type Open = Option<mpsc::Sender<Waiting>>;

struct Calls {
    service: Service,
    /// By stream; with where its messages go as long as more may come.
    open: HashMap<u32, Open>,
    /// Ends with the number of its stream. Dropped, they are all given up: the client has gone.
    tasks: JoinSet<u32>,
    output: mpsc::Sender<Frame>,
    draining: bool,
    place: Place,
}

/// What is wrong with a frame. The connection ends.
struct Violation(u32, FriError);

/// Serves a connection to its end.
pub async fn run(connection: Connection, service: Service, mut stop: watch::Receiver<bool>) {
    let (from, to, place) = connection.into_split();
    let (output, frames) = mpsc::channel(WAITING);
    let mut writer = tokio::spawn(write::run(to, frames));
    let mut from = BufReader::with_capacity(READ, from);
    let (open, tasks) = (HashMap::new(), JoinSet::new());
    let mut calls = Calls { service, open, tasks, output, draining: false, place: place.clone() };
    loop {
        tokio::select! {
            // Waits for a frame's first byte: nothing is lost where another branch is taken.
            more = from.fill_buf() => {
                if !more.is_ok_and(|bytes| !bytes.is_empty()) {
                    break;
                }
                if let Err(Violation(stream, error)) = calls.next(&mut from).await {
                    if let Some(count) = CLOSED.happened() {
                        tracing::warn!(%error, count, "a connection is closed");
                    }
                    // The error is the last that is said.
                    calls.tasks.shutdown().await;
                    let _ = calls.output.send(Frame::error(stream, &error)).await;
                    break;
                }
            }
            Some(ended) = calls.tasks.join_next() => {
                if let Ok(stream) = ended {
                    calls.open.remove(&stream);
                }
            }
            _ = &mut writer => return,
            // It was idle, and another one has its place.
            () = place.given_away() => calls.draining = true,
            () = async { _ = stop.wait_for(|stop| *stop).await }, if !calls.draining => calls.draining = true,
        }
        if calls.draining && calls.tasks.is_empty() {
            break;
        }
    }
    drop(calls);
    drop(place);
    // The last answers are on their way; the writer itself sees to it that this does not take for ever.
    let _ = writer.await;
}

impl Calls {
    async fn next(&mut self, from: &mut (impl AsyncRead + Unpin)) -> Result<(), Violation> {
        let mut share = self.service.room().share();
        let frame = match read(from, &mut share).await {
            Ok(frame) => frame,
            Err(Broken::NoRoom(header)) => {
                self.refuse(header).await;
                return Ok(());
            }
            Err(Broken::TooLong(stream)) => {
                return Err(Violation(
                    stream,
                    FriError::TooLarge { what: "a message", limit: MESSAGE as u64 },
                ));
            }
            Err(Broken::Gone(why)) => return Err(Violation(0, FriError::Malformed(why))),
        };
        let (stream, flags) = (frame.header.stream_id, frame.header.flags);
        let violation = |why| Err(Violation(stream, FriError::Malformed(why)));
        if stream % 2 == 0 {
            return violation("the number of a client's stream is odd");
        }
        match frame.header.type_ {
            MESSAGE_TYPE_REQUEST if self.open.contains_key(&stream) => violation("the stream is in use"),
            MESSAGE_TYPE_REQUEST => match Request::decode(&frame.payload) {
                Ok(request) => self.begin(stream, flags, request).await,
                Err(error) => Err(Violation(stream, FriError::Undecodable(error.to_string()))),
            },
            MESSAGE_TYPE_DATA => {
                self.data(stream, flags, (Ok(frame.payload), share)).await;
                Ok(())
            }
            _ => violation("a client sends requests and data"),
        }
    }

    /// A message of a call. What comes for one that has ended already is not wanted any more.
    async fn data(&mut self, stream: u32, flags: u8, message: Waiting) {
        let Some(open) = self.open.get_mut(&stream) else { return };
        if let (Some(sender), false) = (&open, flags & FLAG_NO_DATA != 0) {
            let _ = sender.send(message).await;
        }
        if flags & FLAG_REMOTE_CLOSED != 0 {
            *open = None;
        }
    }

    /// A frame for which there was no room: its call fails.
    async fn refuse(&mut self, header: MessageHeader) {
        if header.type_ == MESSAGE_TYPE_DATA {
            let sender = self.open.get_mut(&header.stream_id).and_then(Option::take);
            if let Some(sender) = sender {
                let _ = sender.send((Err(FriError::NO_ROOM), self.service.room().share())).await;
            }
            return;
        }
        let _ = self.output.send(Frame::error(header.stream_id, &FriError::NO_ROOM)).await;
    }

    async fn begin(&mut self, stream: u32, flags: u8, request: Request) -> Result<(), Violation> {
        let refused = if self.draining {
            Some(FriError::Daemon(DaemonError::GoingDown))
        } else if self.tasks.len() >= CALLS {
            Some(FriError::Busy(CALLS))
        } else {
            None
        };
        let method = match refused {
            Some(error) => Err(error),
            None => named(&request.service, &request.method),
        };
        let method = match method {
            Ok(method) => method,
            Err(error) => {
                let _ = self.output.send(Frame::error(stream, &error)).await;
                return Ok(());
            }
        };
        let limit = u64::try_from(request.timeout_nano).ok().filter(|n| *n > 0).map(Duration::from_nanos);
        let first = (flags & FLAG_NO_DATA == 0).then(|| Bytes::from(request.payload));
        let (sender, receiver) = mpsc::channel(WAITING);
        let is_open = flags & FLAG_REMOTE_OPEN != 0 && flags & FLAG_REMOTE_CLOSED == 0;
        let more = is_open && matches!(method, Method::Duplex(_));
        self.open.insert(stream, more.then_some(sender));
        let rest = ReceiverStream::new(receiver).map(|(message, _share)| message);
        let input = stream::iter(first.clone().map(Ok)).chain(rest).boxed();
        let (service, output) = (self.service.clone(), self.output.clone());
        let under_way = self.place.call();
        self.tasks.spawn(async move {
            let _under_way = under_way;
            let work = AssertUnwindSafe(call(method, service, stream, first, input, &output)).catch_unwind();
            let ended = match limit {
                Some(limit) => tokio::time::timeout(limit, work).await,
                None => Ok(work.await),
            };
            let last = match ended {
                Ok(Ok(Ok(last))) => last,
                Ok(Ok(Err(error))) => Frame::error(stream, &error),
                Ok(Err(_)) => Frame::error(stream, &FriError::Internal),
                Err(_) => Frame::error(stream, &FriError::Late),
            };
            let _ = output.send(last).await;
            stream
        });
        Ok(())
    }
}

/// Does what is asked, and gives the call's last frame.
async fn call(
    method: &Method,
    service: Service,
    stream: u32,
    first: Option<Bytes>,
    input: Incoming<Bytes>,
    output: &mpsc::Sender<Frame>,
) -> Result<Frame, FriError> {
    let fits = |frame: Frame| match frame.is_too_long() {
        true => Err(FriError::TooLarge { what: "the answer: ask over gRPC", limit: MESSAGE as u64 }),
        false => Ok(frame),
    };
    let mut answers = match method {
        Method::Unary(method) => {
            drop(input);
            return fits(Frame::answer(stream, method(service, first.unwrap_or_default()).await?));
        }
        Method::Server(method) | Method::Duplex(method) => method(service, input).await?,
    };
    while let Some(answer) = answers.next().await {
        let frame = fits(Frame::data(stream, answer?))?;
        output.send(frame).await.map_err(|_| FriError::Gone)?;
    }
    Ok(Frame::close(stream))
}

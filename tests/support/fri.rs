//! The Function Runtime Interface over either transport, message by message.

use super::daemon::Coppiced;
use fri_plugin::fri::client::Client;
use fri_plugin::fri::{grpc, ttrpc as fri_ttrpc};
use fri_plugin::proto;
use fri_plugin::proto::invoke_response::Part as Answer;
use futures::StreamExt;
use futures::channel::mpsc;
use prost::Message;
use std::path::Path;
use std::time::Duration;
use tonic::codegen::http::uri::PathAndQuery;
use tonic_prost::ProstCodec;
use ttrpc::proto::Codec;

/// Why a call failed: the number of its status, and our error.
#[derive(Debug)]
pub struct Failure {
    pub status: i32,
    pub error: proto::Error,
}

impl Failure {
    pub fn code(&self) -> &str {
        &self.error.code
    }
}

/// A connection.
#[derive(Clone)]
pub enum Transport {
    Grpc(Client),
    Ttrpc(ttrpc::asynchronous::Client),
}

impl Transport {
    pub async fn grpc(path: &Path) -> Transport {
        Transport::Grpc(Client::connect(path).await.unwrap())
    }

    pub async fn ttrpc(path: &Path) -> Transport {
        let client = ttrpc::asynchronous::Client::connect(&format!("unix://{}", path.display())).await;
        Transport::Ttrpc(client.unwrap())
    }

    /// A message for a message. `method` is as in "Functions/List".
    pub async fn unary<Q, P>(&self, method: &str, message: Q) -> Result<P, Failure>
    where
        Q: Message + Default + 'static,
        P: Message + Default + 'static,
    {
        match self {
            Transport::Grpc(_) => {
                let mut call = self.call(method, vec![message]).await?;
                let answer = call.next().await?.expect("an answer");
                assert!(call.next().await?.is_none());
                Ok(answer)
            }
            Transport::Ttrpc(client) => {
                let mut request = request(method);
                request.payload = message.encode_to_vec();
                let response = client.request(request).await.map_err(of_ttrpc)?;
                Ok(P::decode(response.payload.as_slice()).unwrap())
            }
        }
    }

    /// Messages for a stream; no more messages follow.
    pub async fn call<Q, P>(&self, method: &str, messages: Vec<Q>) -> Result<Call<Q, P>, Failure>
    where
        Q: Message + Default + 'static,
        P: Message + Default + 'static,
    {
        let one = messages.len() == 1;
        let mut call = self.open(method, if one { messages.first() } else { None }).await?;
        if !one || matches!(self, Transport::Grpc(_)) {
            for message in messages {
                call.send(message).await;
            }
            call.close().await;
        }
        Ok(call)
    }

    /// A call whose messages are sent one by one. Of ttrpc `only` is the one message of a method that takes no stream.
    pub async fn open<Q, P>(&self, method: &str, only: Option<&Q>) -> Result<Call<Q, P>, Failure>
    where
        Q: Message + Default + 'static,
        P: Message + Default + 'static,
    {
        match self {
            Transport::Grpc(client) => {
                let mut grpc = tonic::client::Grpc::new(client.channel()).max_decoding_message_size(64 << 20);
                let path: PathAndQuery = format!("/coppice.fri.v1.{method}").parse().unwrap();
                let (sender, receiver) = mpsc::unbounded();
                let answers = tokio::spawn(async move {
                    grpc.ready().await.map_err(|e| tonic::Status::unavailable(e.to_string()))?;
                    let request = tonic::Request::new(receiver);
                    Ok(grpc.streaming(request, path, ProstCodec::<Q, P>::default()).await?.into_inner())
                });
                Ok(Call::Grpc { sender: Some(sender), answers: Answers::Soon(answers) })
            }
            Transport::Ttrpc(client) => {
                let mut request = request(method);
                request.payload = only.map(Message::encode_to_vec).unwrap_or_default();
                let stream = client.new_stream(request, only.is_none(), true).await.map_err(of_ttrpc)?;
                Ok(Call::Ttrpc { stream, _client: client.clone() })
            }
        }
    }
}

fn request(method: &str) -> ttrpc::Request {
    let (service, method) = method.split_once('/').unwrap();
    let mut request = ttrpc::Request::new();
    request.service = format!("coppice.fri.v1.{service}");
    request.method = method.to_owned();
    request
}

pub fn of_ttrpc(error: ttrpc::Error) -> Failure {
    let ttrpc::Error::RpcStatus(status) = error else { panic!("{error:?}") };
    let error = fri_ttrpc::error_of(&status).unwrap_or_else(|| panic!("no details: {status:?}"));
    let bytes = status.encode().unwrap();
    // The first field of the status is its code.
    let status = if bytes.first() == Some(&8) { i32::from(bytes[1]) } else { 0 };
    Failure { status, error }
}

pub fn of_grpc(status: tonic::Status) -> Failure {
    let error = grpc::error_of(&status).unwrap_or_else(|| panic!("no details: {status:?}"));
    Failure { status: status.code() as i32, error }
}

/// A call under way. Dropped, it is given up.
pub enum Call<Q, P> {
    Grpc { sender: Option<mpsc::UnboundedSender<Q>>, answers: Answers<P> },
    Ttrpc { stream: ttrpc::asynchronous::StreamInner, _client: ttrpc::asynchronous::Client },
}

pub enum Answers<P> {
    Soon(tokio::task::JoinHandle<Result<tonic::Streaming<P>, tonic::Status>>),
    Now(Box<tonic::Streaming<P>>),
}

impl<P> Drop for Answers<P> {
    fn drop(&mut self) {
        if let Answers::Soon(task) = self {
            task.abort();
        }
    }
}

impl<Q: Message + Default + 'static, P: Message + Default + 'static> Call<Q, P> {
    pub async fn send(&mut self, message: Q) {
        match self {
            Call::Grpc { sender, .. } => _ = sender.as_ref().map(|s| s.unbounded_send(message)),
            Call::Ttrpc { stream, .. } => stream.send(message.encode_to_vec()).await.unwrap(),
        }
    }

    pub async fn close(&mut self) {
        match self {
            Call::Grpc { sender, .. } => drop(sender.take()),
            Call::Ttrpc { stream, .. } => stream.close_send().await.unwrap(),
        }
    }

    /// The next message; `None` at a good end.
    pub async fn next(&mut self) -> Result<Option<P>, Failure> {
        match self {
            Call::Grpc { answers, .. } => {
                if let Answers::Soon(task) = answers {
                    let stream = task.await.unwrap().map_err(of_grpc)?;
                    *answers = Answers::Now(Box::new(stream));
                }
                let Answers::Now(stream) = answers else { unreachable!() };
                stream.next().await.transpose().map_err(of_grpc)
            }
            Call::Ttrpc { stream, .. } => match stream.recv().await {
                Ok(bytes) => Ok(Some(P::decode(bytes.as_slice()).unwrap())),
                Err(ttrpc::Error::Eof) => Ok(None),
                Err(error) => Err(of_ttrpc(error)),
            },
        }
    }

    /// Everything to the end.
    pub async fn all(&mut self) -> Result<Vec<P>, Failure> {
        let mut all = Vec::new();
        while let Some(message) = self.next().await? {
            all.push(message);
        }
        Ok(all)
    }
}

/// A connection of either kind.
pub async fn both(daemon: &Coppiced) -> [Transport; 2] {
    [Transport::grpc(&daemon.grpc()).await, Transport::ttrpc(&daemon.ttrpc()).await]
}

/// A request.
pub fn invoke_messages(function: &str, event: &[u8], logs: bool) -> Vec<proto::InvokeRequest> {
    request_messages(proto::InvokeHead { function: function.into(), logs, ..Default::default() }, event)
}

/// A request with a head of the test's own.
pub fn request_messages(head: proto::InvokeHead, event: &[u8]) -> Vec<proto::InvokeRequest> {
    use proto::invoke_request::Part;
    let chunks = event.chunks(1 << 20).map(|c| Part::Chunk(c.to_vec().into())).collect::<Vec<_>>();
    let parts = std::iter::once(Part::Head(head)).chain(chunks);
    let mut messages: Vec<_> = parts.map(|part| proto::InvokeRequest { part: Some(part) }).collect();
    // Never one message only: that would be another way to call, which the short test takes.
    messages.resize_with(messages.len().max(2), || proto::InvokeRequest {
        part: Some(Part::Chunk(Vec::new().into())),
    });
    messages
}

/// A whole answer.
pub struct Answered {
    pub bytes: Vec<u8>,
    pub logs: Vec<u8>,
    pub error: Vec<u8>,
    pub end: proto::InvokeEnd,
}

/// Messages put together.
pub fn gathered(parts: Vec<proto::InvokeResponse>) -> Answered {
    let (mut bytes, mut logs, mut error, mut end) = (Vec::new(), Vec::new(), Vec::new(), None);
    for part in parts {
        assert!(end.is_none(), "something follows the end");
        match part.part.unwrap() {
            Answer::Chunk(chunk) => {
                assert!(chunk.len() <= 1 << 20);
                bytes.extend_from_slice(&chunk);
            }
            Answer::Log(log) => logs.extend_from_slice(&log),
            Answer::Error(part) => error.extend_from_slice(&part),
            Answer::End(last) => end = Some(last),
        }
    }
    Answered { bytes, logs, error, end: end.expect("no end") }
}

pub async fn connect(daemon: &Coppiced, over_grpc: bool) -> Transport {
    if over_grpc { Transport::grpc(&daemon.grpc()).await } else { Transport::ttrpc(&daemon.ttrpc()).await }
}

pub async fn working(t: &Transport) -> usize {
    let all: proto::ListInstancesResponse =
        t.unary("Instances/List", proto::ListInstancesRequest::default()).await.unwrap();
    all.instances.iter().filter(|i| i.state == "working").count()
}

pub async fn until(condition: impl AsyncFn() -> bool, what: &str) {
    for _ in 0..1000 {
        if condition().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("not within ten seconds: {what}");
}

//! The interface over gRPC.

use super::error::FriError;
use super::grpc_calls::Calls;
use super::http2::Begun;
use super::listen::Listener;
use super::service::{Incoming, Outgoing, Service};
use super::{CALLS, MESSAGE, PATIENCE};
use crate::proto;
use crate::proto::functions_server::{Functions, FunctionsServer};
use crate::proto::instances_server::{Instances, InstancesServer};
use crate::proto::node_server::{Node, NodeServer};
use crate::proto::seeds_server::{Seeds, SeedsServer};
use crate::rarely::Rarely;
use futures::StreamExt;
use futures::stream::{BoxStream, Map};
use prost::Message;
use std::future::Future;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::codegen::http;
use tonic::metadata::{BinaryMetadataValue, MetadataMap};
use tonic::transport::Server;
use tonic::{Code, Request, Response, Status, Streaming};

/// Name of the trailer that carries [`proto::Error`].
pub const ERROR: &str = "coppice-error-bin";
/// Longest text, and longest description by a function, in a trailer, bytes: some clients take no more than 8 KiB of trailers.
const TEXT: usize = 1 << 10;
const DESCRIPTION: usize = 3 << 10;
/// Bytes that a client may send ahead, per call and per connection.
const WINDOW: (u32, u32) = (2 << 20, 16 << 20);

/// Serves until `shutdown`, and then until the calls under way have ended.
pub async fn serve(
    listener: Listener,
    service: Service,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), tonic::transport::Error> {
    let (sender, receiver) = mpsc::channel(1);
    let accepting = tokio::spawn(async move {
        loop {
            let connection = listener.accept().await;
            let sender = sender.clone();
            tokio::spawn(async move {
                match tokio::time::timeout(PATIENCE, Begun::expect(connection)).await {
                    Ok(Ok(begun)) => _ = sender.send(Ok::<_, std::io::Error>(begun)).await,
                    Ok(Err(error)) => closed(&error.to_string()),
                    Err(_) => closed("nothing came over it"),
                }
            });
        }
    });
    let stop = async move {
        shutdown.await;
        accepting.abort();
    };
    let room = service.room().clone();
    Server::builder()
        .max_concurrent_streams(u32::try_from(CALLS).ok())
        .max_frame_size(1 << 20)
        .initial_stream_window_size(WINDOW.0)
        .initial_connection_window_size(WINDOW.1)
        .http2_keepalive_interval(Some(PATIENCE))
        .http2_keepalive_timeout(Some(PATIENCE))
        .layer(tower::layer::layer_fn(move |inner| Calls { inner, room: room.clone() }))
        .add_service(FunctionsServer::new(service.clone()).max_decoding_message_size(MESSAGE))
        .add_service(SeedsServer::new(service.clone()).max_decoding_message_size(MESSAGE))
        .add_service(InstancesServer::new(service.clone()).max_decoding_message_size(MESSAGE))
        .add_service(NodeServer::new(service).max_decoding_message_size(MESSAGE))
        .serve_with_incoming_shutdown(ReceiverStream::new(receiver), stop)
        .await
}

/// A connection was closed before it had said that it speaks HTTP/2.
fn closed(why: &str) {
    static CLOSED: Rarely = Rarely::new();
    if let Some(count) = CLOSED.happened() {
        tracing::warn!(why, count, "a connection is closed: it does not speak HTTP/2");
    }
}

/// An error with what it carries.
pub fn status(error: &FriError) -> Status {
    let mut message = error.message();
    shorten(&mut message.message, TEXT);
    if message.function.len() > DESCRIPTION {
        message.function = shortened(&message.function).into();
    }
    let mut metadata = MetadataMap::new();
    metadata.insert_bin(ERROR, BinaryMetadataValue::from_bytes(&message.encode_to_vec()));
    Status::with_metadata(error.status(), message.message, metadata)
}

/// What an error of [`status`] carries.
pub fn error_of(status: &Status) -> Option<proto::Error> {
    let bytes = status.metadata().get_bin(ERROR)?.to_bytes().ok()?;
    proto::Error::decode(bytes).ok()
}

fn shorten(text: &mut String, most: usize) {
    if text.len() > most {
        let end = (0..=most - 4).rev().find(|at| text.is_char_boundary(*at)).unwrap_or_default();
        text.truncate(end);
        text.push_str(" ...");
    }
}

/// A function's description of its error with a shorter text and without the outer frames of its trace.
fn shortened(description: &[u8]) -> Vec<u8> {
    let value: serde_json::Value = serde_json::from_slice(description).unwrap_or_default();
    let text = |key: &str| {
        let mut text = value[key].as_str().unwrap_or_default().to_owned();
        shorten(&mut text, TEXT / 2);
        text
    };
    let mut room = DESCRIPTION - 2 * TEXT;
    let mut lines: Vec<&str> = Vec::new();
    for line in value["stackTrace"].as_array().into_iter().flatten().rev().filter_map(|l| l.as_str()) {
        let Some(left) = room.checked_sub(2 * line.len() + 8) else { break };
        room = left;
        lines.push(line);
    }
    lines.reverse();
    serde_json::json!({"errorType": text("errorType"), "errorMessage": text("errorMessage"), "stackTrace": lines})
        .to_string()
        .into_bytes()
}

/// Gives an error that the library answered with, such as for a message that it could not decode, the code that ours would have.
pub(super) fn explained<B>(mut response: http::Response<B>) -> http::Response<B> {
    let headers = response.headers();
    let status =
        headers.get("grpc-status").and_then(|v| v.to_str().ok()).map(|v| Code::from_bytes(v.as_bytes()));
    let Some(found) = status.filter(|c| *c != Code::Ok && !headers.contains_key(ERROR)) else {
        return response;
    };
    let text = headers.get("grpc-message").and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned();
    let error = match found {
        Code::Unimplemented => FriError::NoSuchMethod("of this name".into()),
        Code::OutOfRange => FriError::TooLarge { what: "a message", limit: MESSAGE as u64 },
        Code::DeadlineExceeded | Code::Cancelled => FriError::Late,
        Code::Internal => FriError::Undecodable(text),
        _ => return response,
    };
    for name in ["grpc-status", "grpc-message"] {
        response.headers_mut().remove(name);
    }
    // Nothing in it can fail to be a header: it is base64 and percent-encoded.
    let _ = status_headers(&error, response.headers_mut());
    response
}

fn status_headers(error: &FriError, headers: &mut http::HeaderMap) -> Result<(), Status> {
    status(error).add_header(headers)
}

/// An error of a stream of messages, as the library has it.
fn incoming_error(status: &Status) -> FriError {
    match status.code() {
        Code::OutOfRange => FriError::TooLarge { what: "a message", limit: MESSAGE as u64 },
        Code::ResourceExhausted if error_of(status).is_some() => FriError::NO_ROOM,
        Code::Internal if status.message().contains("decode") => {
            FriError::Undecodable(status.message().to_owned())
        }
        _ => FriError::Gone,
    }
}

fn incoming<T: Send + 'static>(request: Request<Streaming<T>>) -> Incoming<T> {
    request.into_inner().map(|message| message.map_err(|status| incoming_error(&status))).boxed()
}

type Sent<T> = Map<BoxStream<'static, Result<T, FriError>>, fn(Result<T, FriError>) -> Result<T, Status>>;

fn translate<T>(message: Result<T, FriError>) -> Result<T, Status> {
    message.map_err(|error| status(&error))
}

fn outgoing<T>(stream: Outgoing<T>) -> Response<Sent<T>> {
    Response::new(stream.map(translate as fn(Result<T, FriError>) -> Result<T, Status>))
}

fn one<T>(result: Result<T, FriError>) -> Result<Response<T>, Status> {
    translate(result).map(Response::new)
}

#[tonic::async_trait]
impl Functions for Service {
    type DeployStream = Sent<proto::DeployEvent>;
    type RollbackStream = Sent<proto::DeployEvent>;
    type LogsStream = Sent<proto::LogLine>;

    async fn deploy(
        &self,
        request: Request<Streaming<proto::DeployRequest>>,
    ) -> Result<Response<Self::DeployStream>, Status> {
        Ok(outgoing(Service::deploy(self, incoming(request))))
    }

    async fn get(
        &self,
        request: Request<proto::GetFunctionRequest>,
    ) -> Result<Response<proto::Function>, Status> {
        one(self.function(request.into_inner()).await)
    }

    async fn list(
        &self,
        request: Request<proto::ListFunctionsRequest>,
    ) -> Result<Response<proto::ListFunctionsResponse>, Status> {
        one(self.functions(request.into_inner()).await)
    }

    async fn remove(
        &self,
        request: Request<proto::RemoveFunctionRequest>,
    ) -> Result<Response<proto::RemoveFunctionResponse>, Status> {
        one(Service::remove(self, request.into_inner()).await)
    }

    async fn rollback(
        &self,
        request: Request<proto::RollbackRequest>,
    ) -> Result<Response<Self::RollbackStream>, Status> {
        Ok(outgoing(Service::rollback(self, request.into_inner())))
    }

    async fn logs(&self, request: Request<proto::LogsRequest>) -> Result<Response<Self::LogsStream>, Status> {
        Ok(outgoing(Service::logs(self, request.into_inner())))
    }
}

#[tonic::async_trait]
impl Seeds for Service {
    type WatchStream = Sent<proto::SeedEvent>;

    async fn create(
        &self,
        request: Request<proto::CreateSeedRequest>,
    ) -> Result<Response<proto::Seed>, Status> {
        one(self.create_seed(request.into_inner()).await)
    }

    async fn list(
        &self,
        request: Request<proto::ListSeedsRequest>,
    ) -> Result<Response<proto::ListSeedsResponse>, Status> {
        one(self.seeds(request.into_inner()).await)
    }

    async fn watch(
        &self,
        request: Request<proto::WatchSeedsRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        Ok(outgoing(Service::watch(self, request.into_inner())))
    }

    async fn delete(
        &self,
        request: Request<proto::DeleteSeedRequest>,
    ) -> Result<Response<proto::DeleteSeedResponse>, Status> {
        one(self.delete_seed(request.into_inner()).await)
    }

    async fn prewarm(
        &self,
        request: Request<proto::PrewarmRequest>,
    ) -> Result<Response<proto::Seed>, Status> {
        one(Service::prewarm(self, request.into_inner()).await)
    }
}

#[tonic::async_trait]
impl Instances for Service {
    type ActivateStream = Sent<proto::InvokeResponse>;
    type InvokeStream = Sent<proto::InvokeResponse>;

    async fn fork(&self, request: Request<proto::ForkRequest>) -> Result<Response<proto::Instance>, Status> {
        one(Service::fork(self, request.into_inner()).await)
    }

    async fn activate(
        &self,
        request: Request<Streaming<proto::ActivateRequest>>,
    ) -> Result<Response<Self::ActivateStream>, Status> {
        translate(Service::activate(self, incoming(request)).await).map(outgoing)
    }

    async fn invoke(
        &self,
        request: Request<Streaming<proto::InvokeRequest>>,
    ) -> Result<Response<Self::InvokeStream>, Status> {
        translate(Service::invoke(self, incoming(request)).await).map(outgoing)
    }

    async fn destroy(
        &self,
        request: Request<proto::DestroyRequest>,
    ) -> Result<Response<proto::DestroyResponse>, Status> {
        one(Service::destroy(self, request.into_inner()).await)
    }

    async fn list(
        &self,
        request: Request<proto::ListInstancesRequest>,
    ) -> Result<Response<proto::ListInstancesResponse>, Status> {
        one(self.instances(request.into_inner()).await)
    }
}

#[tonic::async_trait]
impl Node for Service {
    async fn status(
        &self,
        request: Request<proto::StatusRequest>,
    ) -> Result<Response<proto::StatusResponse>, Status> {
        one(Service::status(self, request.into_inner()).await)
    }

    async fn pools(
        &self,
        request: Request<proto::PoolsRequest>,
    ) -> Result<Response<proto::PoolsResponse>, Status> {
        one(Service::pools(self, request.into_inner()).await)
    }

    async fn drain(
        &self,
        request: Request<proto::DrainRequest>,
    ) -> Result<Response<proto::DrainResponse>, Status> {
        one(Service::drain(self, request.into_inner()).await)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::error::DaemonError;
    use seedtree::node::error::NodeError;

    #[test]
    fn an_error_carries_its_code_and_what_the_function_said() {
        let said = br#"{"errorType":"ValueError"}"#.to_vec();
        let status = status(&FriError::Daemon(DaemonError::Node(NodeError::Import(said.clone()))));
        let error = error_of(&status).unwrap();
        assert_eq!((status.code(), error.code.as_str()), (Code::FailedPrecondition, "Runtime.ImportError"));
        assert_eq!(error.function, said);
    }

    #[test]
    fn a_long_trace_is_shortened_to_fit_a_trailer() {
        let lines: Vec<String> = (0..5000).map(|n| format!("line {n} \"\\\n")).collect();
        let said =
            serde_json::json!({"errorType": "X", "errorMessage": "y".repeat(9000), "stackTrace": lines});
        let error = NodeError::Import(said.to_string().into_bytes());
        let status = status(&FriError::Daemon(error.into()));
        let error = error_of(&status).unwrap();
        assert!(error.encoded_len() < DESCRIPTION + TEXT, "{}", error.encoded_len());
        let value: serde_json::Value = serde_json::from_slice(&error.function).unwrap();
        assert_eq!(value["stackTrace"].as_array().unwrap().last().unwrap(), "line 4999 \"\\\n");
        assert_eq!(value["errorType"], "X");
    }

    #[test]
    fn the_librarys_errors_get_our_codes() {
        let answer = |code: &str| {
            let response = http::Response::builder().header("grpc-status", code).body(()).unwrap();
            let headers = explained(response).into_parts().0.headers;
            error_of(&Status::from_header_map(&headers).unwrap()).map(|e| e.code)
        };
        assert_eq!(answer("12").unwrap(), "Request.NoSuchMethod");
        assert_eq!(answer("13").unwrap(), "Request.Malformed");
        assert_eq!(answer("11").unwrap(), "Request.TooLarge");
        assert_eq!(answer("4").unwrap(), "Request.TimedOut");
        assert_eq!(answer("0"), None);
    }
}

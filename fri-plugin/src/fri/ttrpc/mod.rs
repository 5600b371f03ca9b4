//! The interface over ttrpc: its frames and envelopes are the crate ttrpc's, the connections are our own.
//!
//! The crate's server would be less than the interface promises: it handles each frame in a task of its own, so that two pieces of an event
//! may change places; the handler of a stream goes on when its client has gone; a stream's error has no details; and nothing bounds the calls
//! of a connection.

mod connection;
mod frame;
mod methods;
mod write;

use super::error::FriError;
use super::listen::Listener;
use super::service::Service;
use prost::Message;
use std::future::Future;
use tokio::sync::watch;
use tokio::task::JoinSet;
use ttrpc::proto::{Any, Code, Status};

/// Names the type of [`crate::proto::Error`] in the details of a status.
pub const ERROR: &str = "type.googleapis.com/coppice.fri.v1.Error";

/// Serves until `shutdown`, and then until the calls under way have ended.
pub async fn serve(
    listener: Listener,
    service: Service,
    shutdown: impl Future<Output = ()> + Send + 'static,
) {
    let stop = watch::Sender::new(false);
    let mut connections = JoinSet::new();
    tokio::pin!(shutdown);
    loop {
        tokio::select! {
            () = &mut shutdown => break,
            connection = listener.accept() => {
                connections.spawn(connection::run(connection, service.clone(), stop.subscribe()));
            }
            Some(_) = connections.join_next() => {}
        }
    }
    // Its name goes before the last answer does: a new daemon may have it.
    drop(listener);
    stop.send_replace(true);
    while connections.join_next().await.is_some() {}
}

/// An error with what it carries.
pub fn status(error: &FriError) -> Status {
    let message = error.message();
    let mut status = ttrpc::get_status(code(error.status()), &message.message);
    let (type_url, value) = (ERROR.to_owned(), message.encode_to_vec());
    status.details.push(Any { type_url, value, ..Default::default() });
    status
}

/// What an error of [`status`] carries.
pub fn error_of(status: &Status) -> Option<crate::proto::Error> {
    let any = status.details.iter().find(|any| any.type_url == ERROR)?;
    crate::proto::Error::decode(any.value.as_slice()).ok()
}

fn code(code: tonic::Code) -> Code {
    match code {
        tonic::Code::Ok => Code::OK,
        tonic::Code::Cancelled => Code::CANCELLED,
        tonic::Code::Unknown => Code::UNKNOWN,
        tonic::Code::InvalidArgument => Code::INVALID_ARGUMENT,
        tonic::Code::DeadlineExceeded => Code::DEADLINE_EXCEEDED,
        tonic::Code::NotFound => Code::NOT_FOUND,
        tonic::Code::AlreadyExists => Code::ALREADY_EXISTS,
        tonic::Code::PermissionDenied => Code::PERMISSION_DENIED,
        tonic::Code::ResourceExhausted => Code::RESOURCE_EXHAUSTED,
        tonic::Code::FailedPrecondition => Code::FAILED_PRECONDITION,
        tonic::Code::Aborted => Code::ABORTED,
        tonic::Code::OutOfRange => Code::OUT_OF_RANGE,
        tonic::Code::Unimplemented => Code::UNIMPLEMENTED,
        tonic::Code::Internal => Code::INTERNAL,
        tonic::Code::Unavailable => Code::UNAVAILABLE,
        tonic::Code::DataLoss => Code::DATA_LOSS,
        tonic::Code::Unauthenticated => Code::UNAUTHENTICATED,
    }
}

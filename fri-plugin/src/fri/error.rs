//! Errors of the interface, with the same stable codes on every transport.

use crate::daemon::error::{DaemonError, Kind, chain};
use crate::proto;
use prost::bytes::Bytes;
use seedtree::node::error::NodeError;

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum FriError {
    /// The daemon's own.
    #[error(transparent)]
    Daemon(#[from] DaemonError),
    /// The messages are not what the method wants.
    #[error("{0}")]
    Malformed(&'static str),
    /// A message, or a frame, cannot be decoded. With the decoder's words.
    #[error("this cannot be decoded: {0}")]
    Undecodable(String),
    /// Too many bytes.
    #[error("{what}: the limit is {limit} bytes")]
    TooLarge {
        /// Of what.
        what: &'static str,
        /// How many are allowed.
        limit: u64,
    },
    /// More layers than a function may have.
    #[error("more than {0} layers")]
    Layers(usize),
    /// An upload cannot be kept.
    #[error("cannot keep the upload: is the disk full?")]
    Upload(#[source] std::io::Error),
    /// There is no such method.
    #[error("there is no method {0}: docs/FRI.md lists them")]
    NoSuchMethod(String),
    /// The client has gone before it had said everything.
    #[error("the client went away")]
    Gone,
    /// The time that the client gave is over.
    #[error("the call took longer than the client's limit")]
    Late,
    /// More calls than one connection may have.
    #[error("{0} calls are under way on this connection: wait for one, or open another")]
    Busy(usize),
    /// A part of the daemon failed.
    #[error("the call was given up: the daemon's log says why")]
    Internal,
}

impl From<NodeError> for FriError {
    fn from(error: NodeError) -> Self {
        FriError::Daemon(error.into())
    }
}

impl FriError {
    /// A stable name for programs. It never changes its meaning.
    pub fn code(&self) -> &'static str {
        match self {
            FriError::Daemon(error) => error.code(),
            FriError::Malformed(_) | FriError::Undecodable(_) => "Request.Malformed",
            FriError::TooLarge { .. } => "Request.TooLarge",
            FriError::Layers(_) => "Function.Spec",
            FriError::Upload(_) => "Node.Storage",
            FriError::NoSuchMethod(_) => "Request.NoSuchMethod",
            FriError::Gone => "Request.Cancelled",
            FriError::Late => "Request.TimedOut",
            FriError::Busy(_) => "Request.TooMany",
            FriError::Internal => "Node.Internal",
        }
    }

    /// The status of gRPC, which ttrpc has too.
    pub fn status(&self) -> tonic::Code {
        use tonic::Code;
        match self {
            FriError::Daemon(error) => of_kind(error.kind()),
            FriError::Malformed(_) | FriError::Undecodable(_) | FriError::Layers(_) => Code::InvalidArgument,
            FriError::TooLarge { .. } => Code::OutOfRange,
            FriError::NoSuchMethod(_) => Code::Unimplemented,
            FriError::Gone => Code::Cancelled,
            FriError::Late => Code::DeadlineExceeded,
            FriError::Busy(_) => Code::ResourceExhausted,
            FriError::Upload(_) | FriError::Internal => Code::Internal,
        }
    }

    /// As it goes over the wire.
    pub fn message(&self) -> proto::Error {
        let function = match self {
            FriError::Daemon(error) => error.function_says().map(Bytes::copy_from_slice),
            _ => None,
        };
        let code = self.code().to_owned();
        proto::Error { code, message: chain(self), function: function.unwrap_or_default() }
    }
}

/// The status of a kind of error.
pub fn of_kind(kind: Kind) -> tonic::Code {
    use tonic::Code;
    match kind {
        Kind::Invalid => Code::InvalidArgument,
        Kind::NotFound => Code::NotFound,
        Kind::Conflict => Code::Aborted,
        Kind::TooLarge => Code::OutOfRange,
        Kind::TooMany => Code::ResourceExhausted,
        Kind::Unavailable => Code::Unavailable,
        Kind::Function => Code::FailedPrecondition,
        Kind::TimedOut => Code::DeadlineExceeded,
        Kind::Internal => Code::Internal,
    }
}

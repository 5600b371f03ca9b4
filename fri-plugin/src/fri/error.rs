//! Errors of the interface, with the same stable codes on every transport.

use crate::daemon::error::{DaemonError, Kind, chain};
use crate::proto;
use crate::task::Panicked;
use prost::bytes::Bytes;
use seedtree::node::error::NodeError;
use std::io::ErrorKind;

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
    /// As many bytes of this kind as the node holds are there already.
    #[error("too many bytes of {what} are at work: try again later, or raise {key} in the configuration")]
    NoRoom {
        /// Of what.
        what: &'static str,
        /// The bound's key.
        key: &'static str,
    },
    /// It did not come in time.
    #[error("{what} did not arrive in time: {key} in the configuration is the limit")]
    TooSlow {
        /// What.
        what: &'static str,
        /// The limit's key.
        key: &'static str,
    },
    /// More layers than a function may have.
    #[error("more than {0} layers")]
    Layers(usize),
    /// An upload cannot be kept.
    #[error("cannot keep the upload")]
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

impl From<Panicked> for FriError {
    fn from(_: Panicked) -> Self {
        FriError::Internal
    }
}

impl FriError {
    /// No room for an event, or for the message that a part of it comes in.
    pub const NO_ROOM: FriError = FriError::NoRoom { what: "events", key: "memory.events" };

    /// A stable name for programs. It never changes its meaning.
    pub fn code(&self) -> &'static str {
        match self {
            FriError::Daemon(error) => error.code(),
            FriError::Malformed(_) | FriError::Undecodable(_) => "Request.Malformed",
            FriError::TooLarge { .. } => "Request.TooLarge",
            FriError::NoRoom { .. } => "Node.Overloaded",
            FriError::TooSlow { .. } => "Request.TooSlow",
            FriError::Layers(_) => "Code.TooManyLayers",
            FriError::Upload(error) if is_full(error) => "Node.DiskFull",
            FriError::Upload(_) => "Node.Host",
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
            FriError::Late | FriError::TooSlow { .. } => Code::DeadlineExceeded,
            FriError::Busy(_) | FriError::NoRoom { .. } => Code::ResourceExhausted,
            FriError::Upload(error) if is_full(error) => Code::Unavailable,
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

fn is_full(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// Every code in the sources of the errors: two words with a dot between them, in quotes.
    fn in_the_sources() -> BTreeSet<String> {
        let sources = [
            include_str!("error.rs"),
            include_str!("../daemon/error.rs"),
            include_str!("../store/error.rs"),
            include_str!("../code/error.rs"),
            include_str!("../../../seedtree/src/node/error.rs"),
            include_str!("../../../seedtree/src/proto.rs"),
        ];
        let is_word = |w: &str| {
            w.starts_with(|c: char| c.is_ascii_uppercase()) && w.bytes().all(|b| b.is_ascii_alphabetic())
        };
        let is_code = |text: &&str| text.split_once('.').is_some_and(|(a, b)| is_word(a) && is_word(b));
        let literals = sources.iter().flat_map(|text| text.split('"').skip(1).step_by(2));
        literals.filter(is_code).map(str::to_owned).collect()
    }

    /// The rows of the table in docs/FRI.md: code, status.
    fn in_the_table() -> Vec<(String, String)> {
        let rows = include_str!("../../../docs/FRI.md").lines().filter(|line| line.starts_with("| `"));
        let cells = rows.map(|line| line.split('|').map(str::trim).collect::<Vec<_>>());
        let codes = cells.filter(|row| {
            row.len() == 5
                && row[2].bytes().all(|b| b.is_ascii_uppercase() || b == b'_' || row[2] == "in the answer")
        });
        codes.map(|row| (row[1].trim_matches('`').to_owned(), row[2].to_owned())).collect()
    }

    #[test]
    fn the_table_has_every_code_and_no_other() {
        let table: BTreeSet<String> = in_the_table().into_iter().map(|(code, _)| code).collect();
        assert!(table.len() > 30);
        assert_eq!(table, in_the_sources());
    }

    #[test]
    fn the_table_has_the_statuses_of_the_errors() {
        let table = in_the_table();
        let name = |error: &str| NodeError::NoSuchFunction(error.to_owned());
        let full = || std::io::Error::from(ErrorKind::StorageFull);
        let errors: Vec<FriError> = vec![
            FriError::Malformed(""),
            FriError::Undecodable(String::new()),
            FriError::TooLarge { what: "", limit: 0 },
            FriError::NO_ROOM,
            FriError::TooSlow { what: "", key: "" },
            FriError::Layers(1),
            FriError::Upload(full()),
            FriError::Upload(ErrorKind::Other.into()),
            FriError::NoSuchMethod(String::new()),
            FriError::Gone,
            FriError::Late,
            FriError::Busy(1),
            FriError::Internal,
            name("f").into(),
            NodeError::NoSuchSeed("f".into()).into(),
            NodeError::NoSuchInstance("f".into()).into(),
            NodeError::InstanceBusy("f".into()).into(),
            NodeError::TooManyInstances(1).into(),
            NodeError::EventTooLong(1).into(),
            NodeError::TooManyRequests { function: "f".into(), limit: 1, queued: 1 }.into(),
            NodeError::Overloaded { seed: "f".into(), queued: 1 }.into(),
            NodeError::Draining.into(),
            NodeError::NoSeed { function: "f".into(), reason: "r".into() }.into(),
            NodeError::Import(Vec::new()).into(),
            NodeError::WarmUp(Vec::new()).into(),
            NodeError::OsSeed.into(),
            NodeError::Killed.into(),
            NodeError::Host(full()).into(),
            FriError::Daemon(DaemonError::GoingDown),
            FriError::Daemon(DaemonError::Changing("f".into())),
        ];
        for error in errors {
            let status = ttrpc_name(error.status());
            let row = table.iter().find(|(code, _)| code == error.code());
            assert_eq!(row.map(|(_, status)| status.as_str()), Some(status.as_str()), "{error:?}");
        }
    }

    /// As in the table: NOT_FOUND.
    fn ttrpc_name(code: tonic::Code) -> String {
        let mut name = String::new();
        for c in format!("{code:?}").chars() {
            if c.is_ascii_uppercase() && !name.is_empty() {
                name.push('_');
            }
            name.push(c.to_ascii_uppercase());
        }
        name
    }
}

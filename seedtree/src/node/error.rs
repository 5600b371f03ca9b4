//! Errors of a node, each with a stable code.

use super::seed::ForkError;
use crate::channel::ChannelError;
use crate::handle::HandleError;
use crate::proto::Failure;
use crate::runtime::{MAX_PAYLOAD, MAX_STREAMED};
use std::path::PathBuf;

/// Why a node could not do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The root directory cannot be opened.
    #[error("cannot open the root directory {path}: set rootfs in the configuration to one that exists")]
    Root {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Something cannot be hidden from the guests.
    #[error(
        "cannot hide {path} from functions: name what is there, and not what the root directory is or lies in"
    )]
    Hidden {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A directory of a function's code cannot be opened.
    #[error("cannot open the code of function {function} in {path}")]
    Code {
        /// Whose.
        function: String,
        /// Which directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The handler names no file of the code.
    #[error("handler '{handler}': {reason}")]
    Handler {
        /// As it was given.
        handler: String,
        /// What is wrong with it.
        reason: String,
    },
    /// There is no such function.
    #[error("there is no function named {0}")]
    NoSuchFunction(String),
    /// Another version of the function serves.
    #[error(
        "version {version} of function {function} does not serve: ask for the one that does, or for none"
    )]
    NoSuchVersion {
        /// Whose.
        function: String,
        /// Which was asked for.
        version: u64,
    },
    /// There is no such seed.
    #[error("there is no seed {0}")]
    NoSuchSeed(String),
    /// The OS seed stays.
    #[error("the OS seed cannot be dropped: every other seed and instance comes from it")]
    OsSeed,
    /// There is no such instance.
    #[error("there is no instance {0}")]
    NoSuchInstance(String),
    /// The instance serves a request, or is still being made.
    #[error("instance {0} is busy: it serves one request at a time")]
    InstanceBusy(String),
    /// As many instances as clients may own are there.
    #[error("clients own {0} instances already, which is the node's limit: destroy one first")]
    TooManyInstances(usize),
    /// The event is too long.
    #[error("the event has {0} bytes; the limit is {MAX_PAYLOAD}")]
    EventTooLong(usize),
    /// The event is not JSON.
    #[error("the event is not JSON")]
    EventNotJson(#[source] serde_json::Error),
    /// The event is not text: JSON is UTF-8 (RFC 8259, section 8.1).
    #[error("the event is not JSON: it is not UTF-8")]
    EventNotText(#[source] std::str::Utf8Error),
    /// The function's answer is too long.
    #[error("the function's answer is longer than {MAX_PAYLOAD} bytes, the limit")]
    AnswerTooLong,
    /// The function has streamed too much.
    #[error("the function's answer is longer than the {MAX_STREAMED} bytes that may be streamed")]
    StreamTooLong,
    /// As many requests as the function may serve at once are at work, and its queue is full.
    #[error("function {function} serves {limit} requests at once, and {queued} wait: try again later")]
    TooManyRequests {
        /// Which.
        function: String,
        /// Its concurrency.
        limit: usize,
        /// The bound of its queue.
        queued: usize,
    },
    /// The fork queue of the seed is full.
    #[error("the node is overloaded: {queued} forks wait for seed {seed}: try again later")]
    Overloaded {
        /// Which seed.
        seed: String,
        /// The bound of its queue.
        queued: usize,
    },
    /// No seed that fits is alive.
    #[error(
        "function {function} cannot be served before a seed has been grown again: {reason}: try again later"
    )]
    NoSeed {
        /// Which.
        function: String,
        /// Why there is none.
        reason: String,
    },
    /// The seed of the function is larger than what the memory budget leaves for functions.
    #[error(
        "the seed of function {function} holds {bytes} bytes, and {left} bytes of the memory budget are for functions' seeds: requests are \
         served without one; raise the budget, or have the function keep less when it is imported"
    )]
    OverBudget {
        /// Which.
        function: String,
        /// What its seed holds.
        bytes: u64,
        /// What there is for it, were it the only one.
        left: u64,
    },
    /// The seed was grown, and given up at once for others that are worth more.
    #[error(
        "the seed of function {0} was given up for those of others, which are worth more: the memory budget is too small for all"
    )]
    Outbid(String),
    /// The request waited for its turn as long as the function may run.
    #[error("the request waited {0} ms for its turn: try again later")]
    WaitedTooLong(u64),
    /// The node takes no more requests.
    #[error("the node is draining")]
    Draining,
    /// The function itself failed to import: its own error, JSON text.
    #[error("the handler does not import")]
    Import(Vec<u8>),
    /// The function failed the event that it is warmed up with: its own error, JSON text.
    #[error("the handler imports, but fails the event for warming up")]
    WarmUp(Vec<u8>),
    /// The function's process failed: it exited, crashed, or overran a limit.
    #[error(transparent)]
    Function(Failure),
    /// A sandbox failed.
    #[error("{what} failed")]
    Sandbox {
        /// What was attempted.
        what: String,
        /// Why.
        #[source]
        source: HandleError,
    },
    /// A seed gave no child.
    #[error("{what} failed")]
    Fork {
        /// What was attempted.
        what: String,
        /// Why.
        #[source]
        source: ForkError,
    },
    /// An instance was ended by an operator.
    #[error("the instance was ended by an operator")]
    Killed,
    /// Whoever was to take the parts of a streamed answer takes no more.
    #[error("the caller went away before the answer was complete")]
    Abandoned,
    /// The runtime broke its protocol.
    #[error("the function's runtime answered out of protocol")]
    Protocol,
    /// The host refused something that an instance needs.
    #[error("cannot make what an instance needs")]
    Host(#[source] std::io::Error),
}

impl NodeError {
    /// A stable name for programs. It never changes its meaning.
    pub fn code(&self) -> &'static str {
        match self {
            NodeError::Root { .. } | NodeError::Hidden { .. } | NodeError::Host(_) => "Node.Host",
            NodeError::Code { .. } => "Function.CodeMissing",
            NodeError::Handler { .. } => "Function.Handler",
            NodeError::NoSuchFunction(_) => "Function.NotFound",
            NodeError::NoSuchVersion { .. } => "Function.VersionNotFound",
            NodeError::NoSuchSeed(_) => "Seed.NotFound",
            NodeError::OsSeed => "Seed.Needed",
            NodeError::NoSuchInstance(_) => "Instance.NotFound",
            NodeError::InstanceBusy(_) => "Instance.Busy",
            NodeError::TooManyInstances(_) => "Instance.TooMany",
            NodeError::EventTooLong(_) => "Request.TooLarge",
            NodeError::EventNotJson(_) | NodeError::EventNotText(_) => "Request.NotJson",
            NodeError::AnswerTooLong | NodeError::StreamTooLong => "Function.ResponseSizeTooLarge",
            NodeError::TooManyRequests { .. } | NodeError::WaitedTooLong(_) => "Function.TooManyRequests",
            NodeError::Overloaded { .. } => "Node.Overloaded",
            NodeError::NoSeed { .. } => "Node.NoSeed",
            NodeError::OverBudget { .. } | NodeError::Outbid(_) => "Node.OverBudget",
            NodeError::Draining => "Node.Draining",
            NodeError::Import(_) => "Runtime.ImportError",
            NodeError::WarmUp(_) => "Function.WarmUp",
            NodeError::Function(failure) => failure.error_type(),
            NodeError::Killed => "Instance.Killed",
            NodeError::Abandoned => "Request.Abandoned",
            NodeError::Sandbox { .. } | NodeError::Fork { .. } => "Sandbox.Failure",
            NodeError::Protocol => "Runtime.Protocol",
        }
    }

    /// Whether it is the function's own doing, so that the caller gets it as the function's error.
    pub fn is_functions(&self) -> bool {
        matches!(
            self,
            NodeError::Function(_)
                | NodeError::Import(_)
                | NodeError::WarmUp(_)
                | NodeError::AnswerTooLong
                | NodeError::StreamTooLong
                | NodeError::Protocol
        )
    }

    /// Its causes in one line, for logs; empty where it has none.
    pub(crate) fn cause(&self) -> String {
        std::error::Error::source(self).map_or_else(String::new, crate::sandbox::chain)
    }

    /// Whether an instance ended before it had read what it was given.
    pub(crate) fn is_unread(&self) -> bool {
        matches!(self, NodeError::Sandbox { source: HandleError::Channel(ChannelError::Reset), .. })
    }

    /// What came over an instance's channel.
    pub(crate) fn of_failure(what: &str, failure: Failure) -> NodeError {
        match failure {
            Failure::Machine(_) | Failure::Start { .. } => {
                NodeError::Sandbox { what: what.to_owned(), source: failure.into() }
            }
            failure => NodeError::Function(failure),
        }
    }

    pub(crate) fn of_channel(what: &str, error: ChannelError) -> NodeError {
        NodeError::Sandbox { what: what.to_owned(), source: error.into() }
    }
}

//! Why the daemon did not do what it was asked to, with a stable code, and of which kind it is for a protocol.

use crate::code::CodeError;
use crate::store::StoreError;
use seedtree::node::error::NodeError;
use std::path::PathBuf;

/// What a protocol makes of an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The request is wrong: it will never be right.
    Invalid,
    /// It names something that is not there.
    NotFound,
    /// It meets another one that is under way.
    Conflict,
    /// Too many bytes.
    TooLarge,
    /// Try again later: a limit of this function or of the node is reached.
    TooMany,
    /// The node cannot do it now.
    Unavailable,
    /// The function's own doing.
    Function,
    /// The time was up.
    TimedOut,
    /// The node's own fault.
    Internal,
}

/// Errors of the daemon.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// The tree's.
    #[error(transparent)]
    Node(#[from] NodeError),
    /// A field of a function's description is wrong.
    #[error("{field}: {reason}")]
    Spec {
        /// Which field.
        field: &'static str,
        /// What is allowed.
        reason: String,
    },
    /// The store's.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The code's.
    #[error(transparent)]
    Code(#[from] CodeError),
    /// The state directory cannot be made.
    #[error("cannot make the state directory {path} (state in the configuration)")]
    State {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// There is no such policy.
    #[error("there is no policy named {0} (reclaim.policy): {known:?} are there", known = seedtree::reclaim::policies::NAMES)]
    Policy(String),
    /// An upload cannot be read.
    #[error("cannot read the upload {path}")]
    Upload {
        /// Where it is.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Another change of the function is under way.
    #[error("another deploy, rollback or removal of function {0} is under way: try again when it is done")]
    Changing(String),
    /// A task of the daemon failed.
    #[error("a task of the daemon failed")]
    Task(#[source] tokio::task::JoinError),
    /// The daemon is going down.
    #[error("the daemon is going down: try again when it is back")]
    GoingDown,
}

impl DaemonError {
    /// A stable name for programs. It never changes its meaning.
    pub fn code(&self) -> &'static str {
        match self {
            DaemonError::Node(error) => error.code(),
            DaemonError::Spec { .. } => "Function.Spec",
            DaemonError::Store(error) => error.code(),
            DaemonError::Code(error) => error.code(),
            DaemonError::State { .. } | DaemonError::Upload { .. } => "Node.Host",
            DaemonError::Changing(_) => "Function.Changing",
            DaemonError::Policy(_) | DaemonError::Task(_) => "Node.Internal",
            DaemonError::GoingDown => "Node.Draining",
        }
    }

    /// What a protocol makes of it.
    pub fn kind(&self) -> Kind {
        match self {
            DaemonError::Node(error) => kind_of(error),
            DaemonError::Spec { .. } => Kind::Invalid,
            DaemonError::Store(error) => kind_of_store(error),
            DaemonError::Code(CodeError::Full { .. }) => Kind::Unavailable,
            DaemonError::Code(CodeError::ZipTooLarge { .. } | CodeError::TooLarge { .. }) => Kind::TooLarge,
            DaemonError::Code(error) if error.is_uploads() => Kind::Invalid,
            DaemonError::Changing(_) => Kind::Conflict,
            DaemonError::Code(_)
            | DaemonError::State { .. }
            | DaemonError::Upload { .. }
            | DaemonError::Policy(_)
            | DaemonError::Task(_) => Kind::Internal,
            DaemonError::GoingDown => Kind::Unavailable,
        }
    }

    /// The function's own description of its failure (JSON), where it gave one.
    pub fn function_says(&self) -> Option<&[u8]> {
        match self {
            DaemonError::Node(NodeError::Import(says) | NodeError::WarmUp(says)) => Some(says),
            _ => None,
        }
    }
}

/// What a protocol makes of an error of the tree.
pub fn kind_of(error: &NodeError) -> Kind {
    match error.code() {
        "Function.NotFound" | "Function.VersionNotFound" | "Instance.NotFound" | "Seed.NotFound" => {
            Kind::NotFound
        }
        "Function.Handler" | "Function.CodeMissing" | "Request.NotJson" | "Seed.Needed" => Kind::Invalid,
        "Request.TooLarge" => Kind::TooLarge,
        "Function.TooManyRequests" | "Node.Overloaded" | "Node.OverBudget" | "Instance.TooMany" => {
            Kind::TooMany
        }
        "Instance.Busy" | "Instance.Killed" => Kind::Conflict,
        "Node.Draining" | "Node.NoSeed" => Kind::Unavailable,
        "Sandbox.Timedout" => Kind::TimedOut,
        _ if error.is_functions() => Kind::Function,
        _ => Kind::Internal,
    }
}

/// What a protocol makes of an error of the store.
fn kind_of_store(error: &StoreError) -> Kind {
    match error {
        StoreError::NoSuchFunction(_) | StoreError::NoSuchVersion { .. } | StoreError::NoPrevious { .. } => {
            Kind::NotFound
        }
        StoreError::Gone { .. } | StoreError::Superseded { .. } => Kind::Conflict,
        StoreError::TooMany(_) => Kind::TooMany,
        StoreError::Full { .. } => Kind::Unavailable,
        _ => Kind::Internal,
    }
}

/// An error and its causes in one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}

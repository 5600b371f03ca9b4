//! Why the daemon did not do what it was asked to, with a stable code, and of which kind it is for a protocol.

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
    /// The function has no such version.
    #[error("function {function} has no version {version}: `coppice function show {function}` lists them")]
    NoSuchVersion {
        /// Which function.
        function: String,
        /// The version that was asked for.
        version: u64,
    },
    /// The code cannot be read.
    #[error("cannot read the code in {path}")]
    Code {
        /// Where it was looked for.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
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
            DaemonError::NoSuchVersion { .. } => "Function.VersionNotFound",
            DaemonError::Code { .. } => "Function.CodeMissing",
            DaemonError::GoingDown => "Node.Draining",
        }
    }

    /// What a protocol makes of it.
    pub fn kind(&self) -> Kind {
        match self {
            DaemonError::Node(error) => kind_of(error),
            DaemonError::Spec { .. } | DaemonError::Code { .. } => Kind::Invalid,
            DaemonError::NoSuchVersion { .. } => Kind::NotFound,
            DaemonError::GoingDown => Kind::Unavailable,
        }
    }

    /// The function's own description of its failure (JSON), where it gave one.
    pub fn function_says(&self) -> Option<&[u8]> {
        match self {
            DaemonError::Node(NodeError::Import(description)) => Some(description),
            _ => None,
        }
    }
}

/// What a protocol makes of an error of the tree.
pub fn kind_of(error: &NodeError) -> Kind {
    match error.code() {
        "Function.NotFound" | "Instance.NotFound" => Kind::NotFound,
        "Function.Handler" | "Function.CodeMissing" | "Request.NotJson" => Kind::Invalid,
        "Request.TooLarge" => Kind::TooLarge,
        "Function.TooManyRequests" | "Node.Overloaded" => Kind::TooMany,
        "Node.Draining" => Kind::Unavailable,
        "Sandbox.Timedout" => Kind::TimedOut,
        _ if error.is_functions() => Kind::Function,
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

//! Why a daemon cannot begin its life on a host, each reason with a stable code.

use super::lock::Holder;
use std::fmt;
use std::path::PathBuf;

/// Why a daemon cannot begin, or a socket cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum LifeError {
    /// Another daemon has the directory.
    #[error(
        "{directory} is in use by {}: stop it first, or give this daemon other state and run directories",
        Shown(.holder)
    )]
    InUse {
        /// Which directory.
        directory: PathBuf,
        /// Who has it, where that is known.
        holder: Option<Holder>,
    },
    /// A directory cannot be made or used.
    #[error("cannot use the directory {path}: it must be one that coppiced may write to")]
    Directory {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The lock cannot be taken for another reason than its holder.
    #[error("cannot take the lock {path}")]
    Lock {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A file is where a socket is to be.
    #[error(
        "{path} is there already and is not a socket of coppiced: move it away, or configure another path"
    )]
    NotOurs {
        /// Where.
        path: PathBuf,
    },
    /// Somebody listens there.
    #[error("another program listens on {path}: stop it, or configure another path")]
    Listened {
        /// Where.
        path: PathBuf,
    },
    /// The socket cannot be made.
    #[error("cannot make the socket {path}: its directory must be there, and the path may have 107 bytes")]
    Socket {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

impl LifeError {
    /// A stable name for programs.
    pub fn code(&self) -> &'static str {
        match self {
            LifeError::InUse { .. } => "Node.InUse",
            LifeError::Directory { .. } | LifeError::Lock { .. } | LifeError::Socket { .. } => "Node.Host",
            LifeError::NotOurs { .. } | LifeError::Listened { .. } => "Node.SocketTaken",
        }
    }
}

struct Shown<'a>(&'a Option<Holder>);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(holder) => write!(f, "coppiced with process id {}", holder.pid),
            None => f.write_str("another coppiced"),
        }
    }
}

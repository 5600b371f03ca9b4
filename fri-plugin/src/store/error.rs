//! Errors of the store, each with a stable code.

use std::path::PathBuf;

/// Why the store did not do what it was asked to. Nothing has changed then.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process has it open.
    #[error("the store {path} is open in another process: only one coppiced can use a state directory")]
    Locked {
        /// The file.
        path: PathBuf,
    },
    /// The file is not what was written.
    #[error(
        "the store {path} is damaged. Move it away and start again: put a backup of the file in its place, or deploy the functions again"
    )]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// How it was found out.
        #[source]
        source: Damage,
    },
    /// A later coppiced has written it.
    #[error(
        "the store {path} has format {found}, and this coppiced knows {known}: run the coppiced that wrote it, or a later one"
    )]
    Format {
        /// The file.
        path: PathBuf,
        /// What it has.
        found: u64,
        /// What is known.
        known: u64,
    },
    /// There is no space left for it.
    #[error("no space left for the store {path}: nothing was changed; free some space and try again")]
    Full {
        /// The file.
        path: PathBuf,
        /// What the host says.
        #[source]
        source: Box<redb::Error>,
    },
    /// It cannot be read or written.
    #[error("cannot use the store {path}")]
    Host {
        /// The file.
        path: PathBuf,
        /// What the host says.
        #[source]
        source: Box<redb::Error>,
    },
    /// There is no such function.
    #[error("there is no function named {0}")]
    NoSuchFunction(String),
    /// There is no such version, or it never served.
    #[error("function {name} has no version {number} to go back to; there is {there:?}")]
    NoSuchVersion {
        /// Whose.
        name: String,
        /// Which.
        number: u64,
        /// Those that there are.
        there: Vec<u64>,
    },
    /// None served before.
    #[error("function {name} has no version before {number} to go back to")]
    NoPrevious {
        /// Whose.
        name: String,
        /// The one that serves.
        number: u64,
    },
    /// The function was removed while this version was being deployed.
    #[error("version {number} of function {name} was removed while it was being deployed")]
    Gone {
        /// Whose.
        name: String,
        /// Which.
        number: u64,
    },
    /// A later deploy was done first.
    #[error(
        "version {number} of function {name} was overtaken: version {by}, deployed after it, serves or has served"
    )]
    Superseded {
        /// Whose.
        name: String,
        /// Which.
        number: u64,
        /// The later one.
        by: u64,
    },
    /// As many functions as the node takes are there.
    #[error("there are {0} functions, as many as functions.count of the configuration allows")]
    TooMany(usize),
}

/// How damage was found out.
#[derive(Debug, thiserror::Error)]
pub enum Damage {
    /// By the database.
    #[error(transparent)]
    Database(Box<redb::Error>),
    /// The database gave up in the middle of it.
    #[error("it cannot be read")]
    Unreadable,
    /// By a function's record.
    #[error("the record of function {name} cannot be read")]
    Record {
        /// Whose.
        name: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// By a function's record that contradicts itself.
    #[error("the record of function {0} contradicts itself")]
    Unsound(String),
}

impl StoreError {
    /// A stable name for programs. It never changes its meaning.
    pub fn code(&self) -> &'static str {
        match self {
            StoreError::Locked { .. } => "Store.Locked",
            StoreError::Corrupt { .. } => "Store.Corrupt",
            StoreError::Format { .. } => "Store.Format",
            StoreError::Full { .. } => "Store.Full",
            StoreError::Host { .. } => "Store.Host",
            StoreError::NoSuchFunction(_) => "Function.NotFound",
            StoreError::NoSuchVersion { .. } => "Function.VersionNotFound",
            StoreError::NoPrevious { .. } => "Function.NoPreviousVersion",
            StoreError::Gone { .. } => "Function.Removed",
            StoreError::Superseded { .. } => "Function.Superseded",
            StoreError::TooMany(_) => "Node.TooManyFunctions",
        }
    }
}

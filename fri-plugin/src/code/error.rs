//! Why code is not taken, each reason with a stable code.

use super::digest::Digest;
use std::path::PathBuf;

/// Why code is not taken. Nothing is left of it then.
#[derive(Debug, thiserror::Error)]
pub enum CodeError {
    /// The zip file has too many bytes.
    #[error("the zip file has {bytes} bytes; the limit is {limit} (code.zip_bytes)")]
    ZipTooLarge {
        /// Its size.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
    /// Unpacked it has too many bytes.
    #[error("unpacked, the code has more than {limit} bytes (code.unzipped_bytes)")]
    TooLarge {
        /// The limit.
        limit: u64,
    },
    /// Too many files, directories and links.
    #[error("the code has more than {limit} files and directories (code.entries)")]
    TooMany {
        /// The limit.
        limit: usize,
    },
    /// Too many layers.
    #[error("there are {given} layers; the limit is {limit} (code.layers)")]
    TooManyLayers {
        /// How many.
        given: usize,
        /// The limit.
        limit: usize,
    },
    /// Not a zip file, or a damaged one.
    #[error("not a zip file that can be unpacked")]
    NotZip(#[source] zip::result::ZipError),
    /// Two entries of one name.
    #[error("the zip file has two entries of the same name")]
    Duplicates,
    /// Entries that share bytes.
    #[error("entries of the zip file overlap: such a file unpacks to far more than it holds")]
    Overlap,
    /// Nothing in it.
    #[error("there is no file in the code")]
    Empty,
    /// An entry that is not taken.
    #[error("entry {entry:?} of the code: {refusal}")]
    Entry {
        /// Its name, cut where it is long.
        entry: String,
        /// Why not.
        refusal: Refusal,
    },
    /// Damaged contents.
    #[error("entry {entry:?} of the code cannot be unpacked: the zip file is damaged")]
    Damaged {
        /// Its name.
        entry: String,
        /// How.
        #[source]
        source: std::io::Error,
    },
    /// The directory that is to be copied cannot be read.
    #[error("cannot read {path} of the code")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// No space is left for it.
    #[error("no space left for code in {path}: free some space and try again")]
    Full {
        /// The code directory.
        path: PathBuf,
        /// What the host says.
        #[source]
        source: std::io::Error,
    },
    /// The state directory cannot be used.
    #[error("cannot use the code directory {path}")]
    Host {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Code that is referred to is not there.
    #[error("code {0} is missing from the code directory: deploy the function again")]
    Missing(Digest),
}

/// Why an entry is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The name is not UTF-8.
    #[error("the name is not UTF-8")]
    NotText,
    /// There is no name.
    #[error("the name is empty")]
    NoName,
    /// A zero byte or a control character.
    #[error("the name has a control character")]
    Control,
    /// From the root.
    #[error("absolute paths are not taken")]
    Absolute,
    /// `..`.
    #[error("paths with .. are not taken")]
    Parent,
    /// `\`.
    #[error("the name has a backslash: make the zip file with / between directories")]
    Backslash,
    /// Too long.
    #[error("a name has at most 255 bytes, a path 1024, in at most 100 directories")]
    Long,
    /// Twice the same.
    #[error("there are two entries of this name")]
    Duplicate,
    /// Below a file or link.
    #[error("it is below something that is not a directory")]
    NotDirectory,
    /// Encrypted.
    #[error("it is encrypted")]
    Encrypted,
    /// A device, fifo or socket.
    #[error("devices, fifos and sockets are not taken")]
    Special,
    /// Other contents than announced.
    #[error("its size is not the one that the zip file announces")]
    Size,
    /// A compression that is not known.
    #[error("its compression is not known: use deflate or none")]
    Compression,
    /// A symbolic link that leads out.
    #[error("the symbolic link leads out of the code: only relative ones that stay inside are taken")]
    Escape,
    /// A symbolic link that leads to itself.
    #[error("the symbolic link leads to itself")]
    Loop,
    /// Too much work for symbolic links.
    #[error("the symbolic links of the code are too many, or lead too deep, to be followed")]
    Links,
    /// A symbolic link without a usable target.
    #[error("the symbolic link has no target, or one that is no path")]
    Target,
}

impl CodeError {
    /// A stable name for programs. It never changes its meaning.
    pub fn code(&self) -> &'static str {
        match self {
            CodeError::ZipTooLarge { .. } | CodeError::TooLarge { .. } => "Code.TooLarge",
            CodeError::TooMany { .. } => "Code.TooManyEntries",
            CodeError::TooManyLayers { .. } => "Code.TooManyLayers",
            CodeError::NotZip(_) | CodeError::Damaged { .. } => "Code.NotZip",
            CodeError::Empty => "Code.Empty",
            CodeError::Entry { .. } | CodeError::Duplicates | CodeError::Overlap => "Code.Entry",
            CodeError::Read { .. } => "Code.Unreadable",
            CodeError::Full { .. } => "Node.DiskFull",
            CodeError::Host { .. } => "Node.Host",
            CodeError::Missing(_) => "Function.CodeMissing",
        }
    }

    /// Whether it is the uploader's doing, and not the node's.
    pub fn is_uploads(&self) -> bool {
        !matches!(self, CodeError::Full { .. } | CodeError::Host { .. } | CodeError::Missing(_))
    }

    pub(super) fn entry(entry: &[u8], refusal: Refusal) -> CodeError {
        let entry = String::from_utf8_lossy(entry);
        let cut: String = entry.chars().take(200).collect();
        CodeError::Entry { entry: if cut.len() < entry.len() { cut + "..." } else { cut }, refusal }
    }
}

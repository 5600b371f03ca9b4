//! ABI constants and structures that `linux-raw-sys` lacks or types awkwardly. Source: the Linux UAPI headers.

/// `AT_FDCWD`: relative to the working directory.
pub const AT_FDCWD: i32 = -100;
/// Longest path that a call accepts, with its NUL.
pub const PATH_MAX: usize = 4096;
/// Longest name of a directory entry.
pub const NAME_MAX: usize = 255;
/// Number of signals; they are numbered from 1.
pub const NSIG: u32 = 64;

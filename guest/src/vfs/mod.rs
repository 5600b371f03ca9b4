//! Files: open file descriptions, inodes, the overlay of a read-only host directory under an in-memory layer, proc,
//! sys, dev, and the anonymous kinds (pipes, eventfds, epoll sets, host streams, the work channel).

use serde::{Deserialize, Serialize};
use std::os::fd::OwnedFd;

/// An inode's number in the guest's inode table.
pub type InodeId = u64;

mod alloc;
mod data;
pub mod device;
pub mod dnotify;
pub mod eventfd;
mod evict;
pub mod fanotify;
pub mod fdtable;
mod fifo;
pub mod file;
pub mod inode;
pub mod inotify;
mod live;
pub mod lock;
mod lower;
mod maps;
pub mod memfd;
pub mod mount;
pub mod ops;
mod pages;
pub mod path;
pub mod pidfd;
pub mod pipe;
mod pipe_io;
mod proc_task;
mod provide;
pub mod signalfd;
pub mod stream;
pub mod synth;
#[cfg(test)]
mod tests;
pub mod timerfd;
pub mod tree;
pub mod work;

pub use file::Files;
pub use lower::Shown;
pub use tree::Vfs;

/// What stat(2) reports, in its own terms.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)] // inode(7)
pub struct Stat {
    pub dev: u64,
    pub ino: u64,
    pub nlink: u64,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub rdev: u64,
    pub size: u64,
    pub blksize: u64,
    pub blocks: u64,
    /// Seconds and nanoseconds.
    pub atime: (i64, u32),
    /// Seconds and nanoseconds.
    pub mtime: (i64, u32),
    /// Seconds and nanoseconds.
    pub ctime: (i64, u32),
    /// When it was made; zero where nobody knows. Seconds and nanoseconds.
    pub btime: (i64, u32),
}

/// What an open file description stands for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FileKind {
    /// A regular file, directory, symlink (O_PATH) or generated file of the tree.
    Inode(InodeId),
    /// A character device.
    Device(Device, InodeId),
    /// One end of a pipe (a key of `Files::pipes`).
    Pipe {
        /// Which.
        pipe: u64,
        /// It can be written to; one that can also be read is a FIFO's or comes from /proc/self/fd.
        write: bool,
        /// The FIFO that was opened; `None` for what pipe(2) made.
        inode: Option<InodeId>,
    },
    /// An eventfd (a key of `Files::eventfds`).
    EventFd(u64),
    /// An epoll set (a key of `Polls::sets`).
    Epoll(u64),
    /// A host descriptor: the sandbox's stdin, stdout, stderr (a key of `Files::streams`).
    HostStream(u64),
    /// A timer (a key of `Files::timerfds`).
    TimerFd(u64),
    /// Signals (a key of `Files::signalfds`).
    SignalFd(u64),
    /// A queue of inotify(7) (a key of `Watches::queues`).
    Inotify(u64),
    /// A group of fanotify(7) (a key of `Fanotify::groups`).
    Fanotify(u64),
    /// Missing pages (a key of `Userfaults::all`).
    Userfault(u64),
    /// A process (a key of `Files::pidfds`).
    PidFd(u64),
    /// One end of a terminal (a key of `Ttys::all`).
    Tty(crate::tty::TtyEnd),
    /// A POSIX message queue (a key of `Ipc::mqueues`).
    Mqueue(u64),
    /// A socket (a key of `Net::sockets`).
    Socket(u64),
    /// The work channel.
    Work,
}

impl FileKind {
    /// The inode of the tree that was opened.
    pub fn inode(&self) -> Option<InodeId> {
        match self {
            FileKind::Inode(inode)
            | FileKind::Device(_, inode)
            | FileKind::Pipe { inode: Some(inode), .. } => Some(*inode),
            FileKind::Tty(end) => Some(end.inode),
            _ => None,
        }
    }

    /// What advisory locks on it are kept under: its inode, or a number that no inode has. The two ends of a pipe are one, and so are
    /// all the anonymous files that have one inode between them on Linux.
    pub fn locked_as(&self) -> InodeId {
        /// Where the numbers of things that are not in the tree begin; each sort has this many.
        const OTHERS: InodeId = 1 << 60;
        let (sort, id) = match self {
            FileKind::Pipe { pipe, inode: None, .. } => (1, *pipe),
            FileKind::Socket(id) => (2, *id),
            FileKind::HostStream(id) => (3, *id),
            FileKind::Mqueue(id) => (4, *id),
            FileKind::PidFd(id) => (5, *id),
            other => (0, other.inode().unwrap_or(OTHERS)),
        };
        OTHERS * sort + id
    }
}

/// Character devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)] // null(4), full(4), random(4), tty(4)
pub enum Device {
    Null,
    Zero,
    Full,
    Random,
    Urandom,
    /// The caller's controlling terminal.
    Tty,
    /// Opening it makes a pseudoterminal.
    Ptmx,
    /// The slave of that number.
    Pts(u32),
}

impl Device {
    /// The device that the kernel has behind a number (Documentation/admin-guide/devices.txt).
    pub fn by_number(rdev: u64) -> Option<Self> {
        Some(match (rdev >> 8, rdev & 0xff) {
            (1, 3) => Device::Null,
            (1, 5) => Device::Zero,
            (1, 7) => Device::Full,
            (1, 8) => Device::Random,
            (1, 9) => Device::Urandom,
            (5, 0) => Device::Tty,
            _ => return None,
        })
    }
}

/// An open file description.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct OpenFile {
    /// What it stands for.
    pub kind: FileKind,
    /// O_ flags: access mode and status flags.
    pub flags: u32,
    /// File offset; the host's is never used.
    pub pos: u64,
    /// Descriptors and mappings that refer to it.
    pub refs: u32,
}

/// Host descriptors for a first process.
#[derive(Debug, Default)]
pub struct Stdio {
    /// Descriptor 0; `None` is /dev/null.
    pub stdin: Option<OwnedFd>,
    /// Descriptor 1.
    pub stdout: Option<OwnedFd>,
    /// Descriptor 2.
    pub stderr: Option<OwnedFd>,
    /// Open the work channel as descriptor 3.
    pub work: bool,
}

/// What a file can be mapped from.
#[derive(Debug)]
pub enum MapSource {
    /// A file on the host: its descriptor (a duplicate is cheap: an Arc) and its size in bytes now.
    Host(std::sync::Arc<OwnedFd>, u64),
    /// Pages of the arena, held by an inode: see `Kernel::inode_page`.
    Pages(InodeId, u64),
    /// Zero-filled private memory (/dev/zero).
    Zero,
}

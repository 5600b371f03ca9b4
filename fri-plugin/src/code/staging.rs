//! A code directory that is being made: below a name of its own, which is given its digest's name when it is whole.
//!
//! Symbolic links are made last, so that nothing is ever written through one.

use super::error::{CodeError, Refusal};
use super::tree::{Kind, Tree};
use super::{Digest, Pin, tree};
use crate::config::CodeLimits;
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;
use sha2::Digest as _;
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// Directories of the daemon's; no one else writes there.
pub(super) const DIRECTORY: Mode = Mode::from_raw_mode(0o755);
const FILE: Mode = Mode::from_raw_mode(0o444);
const PROGRAM: Mode = Mode::from_raw_mode(0o555);
const BUFFER: usize = 128 << 10;

/// Where reading failed, in the source or in the daemon's own directory.
pub enum Side {
    /// The source.
    Source(std::io::Error),
    /// Ours, or a limit.
    Own(CodeError),
}

/// A directory on its way. Dropped, it is removed.
#[derive(Debug)]
pub struct Staging {
    /// The directory that it is in.
    parent: PathBuf,
    path: PathBuf,
    root: OwnedFd,
    tree: Tree,
    limits: CodeLimits,
    left: u64,
    done: bool,
    /// Under the name that it has while it is made.
    _pin: Pin,
}

/// What a failure to write means.
pub(super) fn host(path: &Path, source: impl Into<std::io::Error>) -> CodeError {
    let (path, source) = (path.to_owned(), source.into());
    match source.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => CodeError::Full { path, source },
        _ => CodeError::Host { path, source },
    }
}

impl Staging {
    /// Makes an empty one in a code directory, of a name that is pinned and that nothing there has.
    pub fn new(parent: &Path, pin: Pin, limits: &CodeLimits) -> Result<Staging, CodeError> {
        let path = parent.join(pin.name());
        rustix::fs::mkdir(&path, Mode::RWXU).map_err(|e| host(parent, e))?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(&path, flags, Mode::empty()).map_err(|e| {
            let _ = std::fs::remove_dir(&path);
            host(parent, e)
        })?;
        Ok(Staging {
            parent: parent.to_owned(),
            path,
            root,
            tree: Tree::new(limits.entries),
            limits: *limits,
            left: limits.unzipped_bytes,
            done: false,
            _pin: pin,
        })
    }

    fn own(&self, error: impl Into<std::io::Error>) -> CodeError {
        host(&self.parent, error)
    }

    fn make_room(&mut self, path: &str) -> Result<(), CodeError> {
        for dir in self.tree.make_room(path)? {
            rustix::fs::mkdirat(&self.root, &dir, DIRECTORY).map_err(|e| self.own(e))?;
        }
        Ok(())
    }

    /// Adds a directory.
    pub fn directory(&mut self, path: tree::Path) -> Result<(), CodeError> {
        if path.is_empty() || self.tree.names_directory(&path) {
            return Ok(());
        }
        self.make_room(&path)?;
        rustix::fs::mkdirat(&self.root, &path, DIRECTORY).map_err(|e| self.own(e))?;
        self.tree.add(path, Kind::Directory);
        Ok(())
    }

    /// Adds a file, with the contents that are read to their end. Gives the file back, and how many bytes it has.
    pub fn file(
        &mut self,
        path: tree::Path,
        executable: bool,
        mut from: impl Read,
    ) -> Result<(File, u64), Side> {
        if path.is_empty() {
            return Err(Side::Own(CodeError::entry(b"", Refusal::NoName)));
        }
        self.make_room(&path).map_err(Side::Own)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.root, &path, flags, Mode::RUSR | Mode::WUSR);
        let mut file = File::from(file.map_err(|e| Side::Own(self.own(e)))?);
        let (mut hash, mut bytes) = (sha2::Sha256::new(), 0);
        let mut buffer = vec![0; BUFFER];
        loop {
            let n = match from.read(&mut buffer) {
                Ok(0) => break,
                Ok(n) => n,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(Side::Source(error)),
            };
            let limit = self.limits.unzipped_bytes;
            self.left = self.left.checked_sub(n as u64).ok_or(Side::Own(CodeError::TooLarge { limit }))?;
            bytes += n as u64;
            let part = buffer.get(..n).unwrap_or_default();
            hash.update(part);
            file.write_all(part).map_err(|e| Side::Own(self.own(e)))?;
        }
        let mode = if executable { PROGRAM } else { FILE };
        rustix::fs::fchmod(&file, mode).map_err(|e| Side::Own(self.own(e)))?;
        self.tree.add(path, Kind::File { executable, digest: Digest(hash.finalize().into()), bytes });
        Ok((file, bytes))
    }

    /// Adds a symbolic link.
    pub fn link(&mut self, path: tree::Path, target: &[u8]) -> Result<(), CodeError> {
        if path.is_empty() {
            return Err(CodeError::entry(b"", Refusal::NoName));
        }
        let target = tree::target(&path, target)?;
        self.make_room(&path)?;
        self.tree.add(path, Kind::Link(target));
        Ok(())
    }

    /// Adds a file that is in another code directory already, which it shares the contents with.
    pub fn share(&mut self, path: tree::Path, kind: Kind, from: &OwnedFd) -> Result<(), CodeError> {
        self.make_room(&path)?;
        match rustix::fs::linkat(from, &path, &self.root, &path, AtFlags::empty()) {
            Ok(()) => {
                self.tree.add(path, kind);
                Ok(())
            }
            // A file system without hard links, or a file with as many as there may be.
            Err(Errno::MLINK | Errno::PERM | Errno::XDEV | Errno::OPNOTSUPP) => {
                let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let file = rustix::fs::openat(from, &path, flags, Mode::empty()).map_err(|e| self.own(e))?;
                let executable = matches!(kind, Kind::File { executable: true, .. });
                match self.file(path, executable, File::from(file)) {
                    Ok(_) => Ok(()),
                    Err(Side::Own(error)) => Err(error),
                    Err(Side::Source(error)) => Err(self.own(error)),
                }
            }
            Err(error) => Err(self.own(error)),
        }
    }

    /// Takes away what is at a path.
    pub fn remove(&mut self, path: &str, is_directory: bool) -> Result<(), CodeError> {
        let full = self.path.join(path);
        // Links are not made yet.
        let removed = if is_directory { std::fs::remove_dir_all(full) } else { std::fs::remove_file(full) };
        match removed {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(self.own(error)),
            _ => {}
        }
        self.tree.remove(path);
        Ok(())
    }

    /// What is in it.
    pub fn tree(&self) -> &Tree {
        &self.tree
    }

    /// Checks and makes the links, and brings everything to the disk.
    pub fn finish(&mut self) -> Result<(), CodeError> {
        self.tree.check_links()?;
        for (path, kind) in self.tree.iter() {
            if let Kind::Link(target) = kind {
                rustix::fs::symlinkat(target, &self.root, path).map_err(|e| self.own(e))?;
            }
        }
        rustix::fs::fchmod(&self.root, DIRECTORY).map_err(|e| self.own(e))?;
        rustix::fs::syncfs(&self.root).map_err(|e| self.own(e))
    }

    /// Gives a finished one its name. Where there is one of that name, this one is not needed.
    pub fn publish(mut self, name: &str) -> Result<PathBuf, CodeError> {
        let to = self.parent.join(name);
        match rustix::fs::rename(&self.path, &to) {
            Ok(()) => {
                self.done = true;
                let synced = File::open(&self.parent).and_then(|dir| dir.sync_all());
                synced.map_err(|e| self.own(e))?;
            }
            Err(Errno::NOTEMPTY | Errno::EXIST) => {}
            Err(error) => return Err(self.own(error)),
        }
        Ok(to)
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if !self.done
            && let Err(error) = std::fs::remove_dir_all(&self.path)
        {
            tracing::warn!(path = %self.path.display(), %error, "code that was not taken could not be removed");
        }
    }
}

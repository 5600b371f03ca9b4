//! Unix sockets that are listened on: at their place with their permissions from the first moment, and gone with their owner.

use super::error::LifeError;
use rustix::fs::{AtFlags, Mode};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

/// Longest path of a socket, bytes.
const LONGEST: usize = 107;
/// Connections that may wait to be accepted.
const BACKLOG: i32 = 1024;

/// A socket that is listened on. Dropped, its file is removed; what is done with the listener is its user's.
#[derive(Debug)]
pub struct Socket {
    path: PathBuf,
    node: (u64, u64),
}

/// Whether there is nothing, or a socket of ours that nobody listens on.
fn is_free(path: &Path) -> Result<bool, LifeError> {
    let failed = |source| LifeError::Socket { path: path.to_owned(), source };
    let meta = match std::fs::symlink_metadata(path) {
        Ok(meta) => meta,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(true),
        Err(error) => return Err(failed(error)),
    };
    if !meta.file_type().is_socket() || meta.uid() != rustix::process::geteuid().as_raw() {
        return Err(LifeError::NotOurs { path: path.to_owned() });
    }
    match UnixStream::connect(path) {
        Ok(_) => Err(LifeError::Listened { path: path.to_owned() }),
        Err(error) => match Errno::from_io_error(&error) {
            Some(Errno::CONNREFUSED | Errno::NOENT) => Ok(true),
            // Of another type, or its queue is full: somebody is there.
            Some(Errno::PROTOTYPE | Errno::AGAIN) => Err(LifeError::Listened { path: path.to_owned() }),
            _ => Err(failed(error)),
        },
    }
}

/// Removes a socket that nobody listens on; whether there was one. Anything else is left alone.
pub fn remove_stale(path: &Path) -> bool {
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|m| m.file_type().is_socket());
    is_socket && is_free(path).unwrap_or(false) && std::fs::remove_file(path).is_ok()
}

/// Listens at a path, in the place of a socket of a previous life. `mode` is its permission bits. Does not block for accept(2).
pub fn listen(path: &Path, mode: u32, group: Option<u32>) -> Result<(UnixListener, Socket), LifeError> {
    let failed = |source| LifeError::Socket { path: path.to_owned(), source };
    // Moved to a longer name it would be there, and no client could connect to it (unix(7), sun_path).
    if path.as_os_str().len() > LONGEST {
        return Err(failed(std::io::ErrorKind::InvalidFilename.into()));
    }
    is_free(path)?;
    let new = path.with_file_name(format!(".{}", std::process::id()));
    // Made under another name, it cannot be reached before it has its permissions; and where the path is taken, it is replaced at once.
    let make = || -> rustix::io::Result<UnixListener> {
        let _ = rustix::fs::unlink(&new);
        let fd =
            rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        rustix::net::bind(&fd, &SocketAddrUnix::new(&new)?)?;
        rustix::fs::chmod(&new, Mode::from_raw_mode(mode))?;
        if let Some(group) = group {
            let group = rustix::fs::Gid::from_raw(group);
            rustix::fs::chownat(rustix::fs::CWD, &new, None, Some(group), AtFlags::SYMLINK_NOFOLLOW)?;
        }
        rustix::net::listen(fd.as_fd(), BACKLOG)?;
        rustix::fs::rename(&new, path)?;
        Ok(UnixListener::from(fd))
    };
    let listener = make().map_err(|e| {
        let _ = std::fs::remove_file(&new);
        failed(e.into())
    })?;
    listener.set_nonblocking(true).map_err(failed)?;
    let meta = std::fs::symlink_metadata(path).map_err(failed)?;
    Ok((listener, Socket { path: path.to_owned(), node: (meta.dev(), meta.ino()) }))
}

impl Drop for Socket {
    fn drop(&mut self) {
        let there = std::fs::symlink_metadata(&self.path);
        if there.is_ok_and(|m| (m.dev(), m.ino()) == self.node) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_socket_has_its_permissions_and_goes_with_its_owner() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("fri.sock");
        let gid = rustix::process::getegid().as_raw();
        let (listener, socket) = listen(&path, 0o660, Some(gid)).unwrap();
        let meta = path.metadata().unwrap();
        assert_eq!((meta.permissions().mode() & 0o777, meta.gid()), (0o660, gid));
        UnixStream::connect(&path).unwrap();
        assert!(matches!(listen(&path, 0o660, None), Err(LifeError::Listened { .. })));
        assert!(!remove_stale(&path));
        drop((listener, socket));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_stale_socket_is_replaced_and_anything_else_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("fri.sock");
        drop(UnixListener::bind(&path).unwrap());
        let (_listener, socket) = listen(&path, 0o600, None).unwrap();
        UnixStream::connect(&path).unwrap();
        // Somebody else's by now.
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "mine").unwrap();
        drop(socket);
        assert!(matches!(listen(&path, 0o600, None), Err(LifeError::NotOurs { .. })));
        assert!(!remove_stale(&path));
        assert_eq!(std::fs::read(&path).unwrap(), b"mine");
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert!(matches!(listen(&link, 0o600, None), Err(LifeError::NotOurs { .. })));
        for bad in ["no/fri".to_owned(), "x".repeat(107)] {
            assert!(matches!(listen(&dir.path().join(bad), 0o600, None), Err(LifeError::Socket { .. })));
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2);
    }
}

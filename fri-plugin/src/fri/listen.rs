//! A Unix socket that is there with its permissions from the first moment on, and connections whose peers have been checked.

use super::access::Access;
use std::io::{Error, Result};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Wait after an accept that failed, so that a host without descriptors is not kept busy.
const AFTER_FAILURE: Duration = Duration::from_millis(50);

/// Longest path of a socket, bytes.
const LONGEST_PATH: usize = 107;

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot make the socket {path}: the directory must exist and be writable, and a path may have 107 bytes"
)]
pub struct ListenError {
    path: PathBuf,
    #[source]
    source: Error,
}

/// A listening socket. Its name is removed with it.
#[derive(Debug)]
pub struct Listener {
    socket: UnixListener,
    path: PathBuf,
    /// Of the socket that we made: another one of the same name is not ours to remove.
    inode: u64,
    access: Access,
    slots: Arc<Semaphore>,
}

impl Listener {
    /// Makes the socket, in place of one that an ended daemon has left. `connections` may be open at once.
    pub fn bind(
        path: &Path,
        access: Access,
        connections: usize,
    ) -> std::result::Result<Listener, ListenError> {
        let fail = |source| ListenError { path: path.to_owned(), source };
        let (socket, inode) = bind(path, access).map_err(fail)?;
        let slots = Arc::new(Semaphore::new(connections.clamp(1, Semaphore::MAX_PERMITS)));
        Ok(Listener { socket, path: path.to_owned(), inode, access, slots })
    }

    /// The next connection whose peer may use the interface. Others are closed before a byte is read.
    pub async fn accept(&self) -> Connection {
        loop {
            let stream = match self.socket.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(socket = %self.path.display(), %error, "cannot accept a connection");
                    tokio::time::sleep(AFTER_FAILURE).await;
                    continue;
                }
            };
            if let Err(error) = self.access.check(&stream) {
                tracing::warn!(socket = %self.path.display(), %error, "a connection is refused");
                continue;
            }
            match self.slots.clone().try_acquire_owned() {
                Ok(slot) => return Connection { stream, slot },
                Err(_) => {
                    tracing::warn!(socket = %self.path.display(), "a connection is refused: too many are open")
                }
            }
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if std::fs::symlink_metadata(&self.path).is_ok_and(|m| m.ino() == self.inode) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Binds in a directory that nobody else can enter, and moves the socket to its place when it is as it should be.
fn bind(path: &Path, access: Access) -> Result<(UnixListener, u64)> {
    // Bound under a shorter name it would be there, and no client could connect to it (unix(7), sun_path).
    if path.as_os_str().len() > LONGEST_PATH {
        return Err(std::io::ErrorKind::InvalidFilename.into());
    }
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let closed = tempfile::Builder::new()
        .prefix(".s")
        .rand_bytes(4)
        .permissions(std::fs::Permissions::from_mode(0o700))
        .tempdir_in(parent)?;
    let made = closed.path().join("s");
    let socket = UnixListener::bind(&made)?;
    std::fs::set_permissions(&made, std::fs::Permissions::from_mode(access.mode))?;
    if let Some(group) = access.group {
        std::os::unix::fs::chown(&made, None, Some(group))?;
    }
    let inode = std::fs::symlink_metadata(&made)?.ino();
    std::fs::rename(&made, path)?;
    Ok((socket, inode))
}

/// A connection of a peer that was checked.
#[derive(Debug)]
pub struct Connection {
    stream: UnixStream,
    slot: OwnedSemaphorePermit,
}

impl Connection {
    /// Its two directions, and its place among the open connections.
    pub fn into_split(self) -> (OwnedReadHalf, OwnedWriteHalf, OwnedSemaphorePermit) {
        let (from, to) = self.stream.into_split();
        (from, to, self.slot)
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[std::io::IoSlice<'_>],
    ) -> Poll<Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt;

    const OWN: Access = Access { mode: 0o660, group: None };

    #[tokio::test]
    async fn the_socket_has_its_mode_and_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.sock");
        let listener = Listener::bind(&path, OWN, 1).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
        // A second one takes the name over; the first one then leaves it alone.
        let second = Listener::bind(&path, OWN, 1).unwrap();
        drop(listener);
        assert!(path.exists());
        drop(second);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        assert!(Listener::bind(&dir.path().join("none/a.sock"), OWN, 1).is_err());
        assert!(Listener::bind(&dir.path().join("x".repeat(200)), OWN, 1).is_err());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn connections_beyond_the_bound_are_closed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.sock");
        let listener = Arc::new(Listener::bind(&path, OWN, 1).unwrap());
        let (first, _client) = tokio::join!(listener.accept(), UnixStream::connect(&path));
        let accepting = tokio::spawn({
            let listener = listener.clone();
            async move { listener.accept().await }
        });
        let mut second = UnixStream::connect(&path).await.unwrap();
        assert_eq!(second.read(&mut [0]).await.unwrap(), 0);
        drop(first);
        let _third = UnixStream::connect(&path).await.unwrap();
        accepting.await.unwrap();
    }
}

//! A Unix socket that is there with its permissions from the first moment on, and connections whose peers have been checked.

use super::access::Access;
use super::places::{Place, Places};
use crate::life::LifeError;
use crate::life::socket::{self, Socket};
use crate::rarely::Rarely;
use std::io::Result;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};

/// Wait after an accept that failed, so that a host without descriptors is not kept busy.
const AFTER_FAILURE: Duration = Duration::from_millis(50);

/// A listening socket. Its name is removed with it.
#[derive(Debug)]
pub struct Listener {
    socket: UnixListener,
    path: PathBuf,
    /// Removes its name.
    _file: Socket,
    access: Access,
    places: Places,
    refused: Rarely,
}

impl Listener {
    /// Makes the socket, in place of one that an ended daemon has left.
    pub fn bind(path: &Path, access: Access, places: Places) -> std::result::Result<Listener, LifeError> {
        let (socket, file) = socket::listen(path, access.mode, access.group)?;
        let socket = UnixListener::from_std(socket)
            .map_err(|source| LifeError::Socket { path: path.to_owned(), source })?;
        Ok(Listener { socket, path: path.to_owned(), _file: file, access, places, refused: Rarely::new() })
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
            let error = match self.access.check(&stream) {
                Ok(_) => match self.places.take() {
                    Some(place) => return Connection { stream, place },
                    None => "too many are open".to_owned(),
                },
                Err(error) => error.to_string(),
            };
            if let Some(count) = self.refused.happened() {
                tracing::warn!(socket = %self.path.display(), error, count, "a connection is refused");
            }
        }
    }
}

/// A connection of a peer that was checked.
#[derive(Debug)]
pub struct Connection {
    stream: UnixStream,
    place: Place,
}

impl Connection {
    /// Its two directions, and its place among the open connections.
    pub fn into_split(self) -> (OwnedReadHalf, OwnedWriteHalf, Place) {
        let (from, to) = self.stream.into_split();
        (from, to, self.place)
    }

    /// Its place among the open connections.
    pub fn place(&self) -> &Place {
        &self.place
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
    use std::os::unix::fs::PermissionsExt;
    use std::sync::Arc;
    use tokio::io::AsyncReadExt;

    const OWN: Access = Access { mode: 0o660, group: None };

    fn one() -> Places {
        Places::new(1, Duration::from_secs(3600))
    }

    #[tokio::test]
    async fn the_socket_has_its_mode_and_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.sock");
        let listener = Listener::bind(&path, OWN, one()).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
        assert!(matches!(Listener::bind(&path, OWN, one()), Err(LifeError::Listened { .. })));
        drop(listener);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        assert!(Listener::bind(&dir.path().join("none/a.sock"), OWN, one()).is_err());
        assert!(Listener::bind(&dir.path().join("x".repeat(200)), OWN, one()).is_err());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn connections_beyond_the_bound_are_closed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.sock");
        let listener = Arc::new(Listener::bind(&path, OWN, one()).unwrap());
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

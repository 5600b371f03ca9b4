//! Connections that speak HTTP/2, until their places are given away.

use super::listen::Connection;
use super::places::Place;
use futures::future::BoxFuture;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tonic::transport::server::Connected;

/// What a client of HTTP/2 says first (RFC 9113, section 3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A connection whose client has begun as one of HTTP/2 does.
pub struct Begun {
    connection: Connection,
    /// How much of the beginning, which was read, the library has had.
    repeated: usize,
    /// Its place is given away: `None` once that is so.
    given_away: Option<BoxFuture<'static, ()>>,
}

impl Begun {
    /// Reads the beginning.
    pub async fn expect(mut connection: Connection) -> std::io::Result<Begun> {
        let mut first = [0; PREFACE.len()];
        let place = connection.place().clone();
        tokio::select! {
            read = connection.read_exact(&mut first) => {
                read?;
            }
            () = place.given_away() => return Err(std::io::ErrorKind::ConnectionAborted.into()),
        }
        if &first != PREFACE {
            return Err(std::io::ErrorKind::InvalidData.into());
        }
        let given_away = Box::pin(async move { place.given_away().await });
        Ok(Begun { connection, repeated: 0, given_away: Some(given_away) })
    }
}

impl Connected for Begun {
    type ConnectInfo = Place;

    fn connect_info(&self) -> Place {
        self.connection.place().clone()
    }
}

impl AsyncRead for Begun {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let rest = &PREFACE[self.repeated..];
        if rest.is_empty() {
            let goes = self.given_away.as_mut().is_none_or(|given| given.as_mut().poll(cx).is_ready());
            if goes {
                // For the library the client has gone: it had no call.
                self.given_away = None;
                return Poll::Ready(Ok(()));
            }
            return Pin::new(&mut self.connection).poll_read(cx, buf);
        }
        let n = rest.len().min(buf.remaining());
        buf.put_slice(&rest[..n]);
        self.repeated += n;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Begun {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.connection).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.connection).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.connection.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.connection).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.connection).poll_shutdown(cx)
    }
}

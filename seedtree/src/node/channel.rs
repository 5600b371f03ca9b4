//! A channel whose owner waits for many at once.

use crate::channel::{Channel, ChannelError};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};
use serde::{Serialize, de::DeserializeOwned};
use std::io::ErrorKind;
use std::os::fd::{BorrowedFd, OwnedFd};
use tokio::io::Interest;
use tokio::net::UnixStream;

/// One end, in a tokio runtime. The peer may block on its own.
#[derive(Debug)]
pub struct AsyncChannel {
    channel: Channel<UnixStream>,
}

fn socket_error(error: &std::io::Error) -> ChannelError {
    ChannelError::Socket(Errno::from_io_error(error).unwrap_or(Errno::IO))
}

impl AsyncChannel {
    /// Registers a channel with the runtime that this is called in.
    pub fn new(channel: Channel) -> Result<Self, ChannelError> {
        // Of a stream it has the readiness only: packets are sent and received by the channel's own calls.
        let stream = std::os::unix::net::UnixStream::from(channel.into_fd());
        let socket = stream.set_nonblocking(true).and_then(|()| UnixStream::from_std(stream));
        Ok(AsyncChannel { channel: Channel { socket: socket.map_err(|e| socket_error(&e))? } })
    }

    /// Does a step when there is room.
    async fn when_writable<T>(
        &self,
        mut step: impl FnMut(&Channel<UnixStream>) -> Result<T, ChannelError>,
    ) -> Result<T, ChannelError> {
        // Most often there is: the call itself tells.
        match step(&self.channel) {
            Err(error) if error.would_block() => self.when(Interest::WRITABLE, step).await,
            other => other,
        }
    }

    /// Does a step when the runtime has been told that it can be done, and costs no call of the host before.
    async fn when<T>(
        &self,
        interest: Interest,
        mut step: impl FnMut(&Channel<UnixStream>) -> Result<T, ChannelError>,
    ) -> Result<T, ChannelError> {
        let socket = &self.channel.socket;
        loop {
            socket.ready(interest).await.map_err(|e| socket_error(&e))?;
            let mut result = None;
            let tried = socket.try_io(interest, || match step(&self.channel) {
                Err(error) if error.would_block() => Err(ErrorKind::WouldBlock.into()),
                other => {
                    result = Some(other);
                    Ok(())
                }
            });
            match (result, tried) {
                (Some(result), _) => return result,
                (None, Err(error)) if error.kind() != ErrorKind::WouldBlock => {
                    return Err(socket_error(&error));
                }
                _ => {}
            }
        }
    }

    /// Sends a message with descriptors. Not to be dropped half-way: the peer would wait for the rest.
    pub async fn send<T: Serialize>(&self, message: &T, fds: &[BorrowedFd<'_>]) -> Result<(), ChannelError> {
        let body = postcard::to_allocvec(message).map_err(|_| ChannelError::Malformed)?;
        let mut done = self.when_writable(|c| c.send_first(&body, fds, SendFlags::DONTWAIT)).await?;
        while done < body.len() {
            done += self.when_writable(|c| c.send_more(&body[done..], SendFlags::DONTWAIT)).await?;
        }
        Ok(())
    }

    /// Receives a message. A message of one packet arrives whole or not at all; of a longer one what has arrived is lost when this is
    /// dropped, and the channel is of no use then.
    pub async fn receive<T: DeserializeOwned>(&self) -> Result<(T, Vec<OwnedFd>), ChannelError> {
        let mut partial = self.when(Interest::READABLE, |c| c.receive_first(RecvFlags::DONTWAIT)).await?;
        while !partial.is_whole() {
            self.when(Interest::READABLE, |c| c.receive_more(&mut partial, RecvFlags::DONTWAIT)).await?;
        }
        let message = postcard::from_bytes(&partial.body).map_err(|_| ChannelError::Malformed)?;
        Ok((message, partial.fds))
    }
}

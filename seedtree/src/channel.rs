//! A packet socket that carries messages with descriptors.
//!
//! A message is a header packet (body length, up to [`INLINE`] bytes of the body, descriptors) followed by packets of [`CHUNK`] bytes
//! with the rest.
//! The receiving side bounds the length, because the peer may be a sandbox that a hostile guest has taken over.

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Body bytes that travel with the header. Small, because a fresh child of a fork pays for each page of its buffer.
pub const INLINE: usize = 4 << 10;
/// Bytes of each packet after the first.
pub const CHUNK: usize = 64 << 10;
/// Longest message accepted, bytes: a 6 MiB payload with its envelope.
pub const MAX_MESSAGE: usize = 8 << 20;
/// Most descriptors with one message.
pub const MAX_FDS: usize = 4;

/// Errors of a channel.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    /// The peer is gone.
    #[error("the sandbox process closed its socket")]
    Closed,
    /// The message is longer than [`MAX_MESSAGE`].
    #[error("a message of {0} bytes exceeds the limit of {MAX_MESSAGE} bytes")]
    TooLong(usize),
    /// What arrived is not a message.
    #[error("a malformed message arrived from the sandbox process")]
    Malformed,
    /// The socket failed.
    #[error("the sandbox's socket failed")]
    Socket(#[source] Errno),
}

impl From<Errno> for ChannelError {
    fn from(e: Errno) -> Self {
        match e {
            Errno::PIPE | Errno::CONNRESET => ChannelError::Closed,
            e => ChannelError::Socket(e),
        }
    }
}

/// One end.
#[derive(Debug)]
pub struct Channel {
    socket: OwnedFd,
}

impl Channel {
    /// A connected pair.
    pub fn pair() -> Result<(Channel, Channel), ChannelError> {
        let (a, b) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        Ok((Channel { socket: a }, Channel { socket: b }))
    }

    /// Takes over a socket that came from elsewhere.
    pub fn from_fd(socket: OwnedFd) -> Self {
        Channel { socket }
    }

    /// Gives the socket away.
    pub fn into_fd(self) -> OwnedFd {
        self.socket
    }

    /// Sends a message with descriptors. Blocks while the peer's queue is full.
    pub fn send(&self, body: &[u8], fds: &[BorrowedFd<'_>]) -> Result<(), ChannelError> {
        if body.len() > MAX_MESSAGE {
            return Err(ChannelError::TooLong(body.len()));
        }
        let (first, rest) = body.split_at(body.len().min(INLINE));
        let len = u32::try_from(body.len()).map_err(|_| ChannelError::TooLong(body.len()))?.to_le_bytes();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
            return Err(ChannelError::Malformed);
        }
        retry(|| {
            sendmsg(
                &self.socket,
                &[IoSlice::new(&len), IoSlice::new(first)],
                &mut control,
                SendFlags::NOSIGNAL,
            )
        })?;
        for chunk in rest.chunks(CHUNK) {
            retry(|| rustix::net::send(&self.socket, chunk, SendFlags::NOSIGNAL))?;
        }
        Ok(())
    }

    /// Receives a message. Blocks; [`ChannelError::Closed`] at the end.
    pub fn receive(&self) -> Result<(Vec<u8>, Vec<OwnedFd>), ChannelError> {
        let mut len = [0; 4];
        let mut first = vec![0; INLINE];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let got = retry(|| {
            recvmsg(
                &self.socket,
                &mut [IoSliceMut::new(&mut len), IoSliceMut::new(&mut first)],
                &mut control,
                RecvFlags::CMSG_CLOEXEC,
            )
        })?;
        if got.bytes == 0 {
            return Err(ChannelError::Closed);
        }
        let mut fds = Vec::new();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                fds.extend(rights);
            }
        }
        let total = u32::from_le_bytes(len) as usize;
        if got.bytes < 4 || got.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
            return Err(ChannelError::Malformed);
        }
        if total > MAX_MESSAGE {
            return Err(ChannelError::TooLong(total));
        }
        let mut body = first;
        body.truncate(got.bytes - 4);
        if body.len() > total || (body.len() < total && body.len() != INLINE) {
            return Err(ChannelError::Malformed);
        }
        while body.len() < total {
            let start = body.len();
            body.resize(total.min(start + CHUNK), 0);
            let want = body.len() - start;
            let (n, _) = retry(|| rustix::net::recv(&self.socket, &mut body[start..], RecvFlags::empty()))?;
            if n == 0 {
                return Err(ChannelError::Closed);
            }
            if n != want {
                return Err(ChannelError::Malformed);
            }
        }
        Ok((body, fds))
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn retry<T>(mut f: impl FnMut() -> Result<T, Errno>) -> Result<T, Errno> {
    loop {
        match f() {
            Err(Errno::INTR) => {}
            other => return other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_messages_and_descriptors_arrive_whole() {
        let (a, b) = Channel::pair().unwrap();
        let body: Vec<u8> = (0..INLINE + CHUNK * 2 + 17).map(|i| (i % 251) as u8).collect();
        let sent = body.clone();
        let sender = std::thread::spawn(move || {
            let null = std::fs::File::open("/dev/null").unwrap();
            a.send(&sent, &[null.as_fd()]).unwrap();
            a.send(b"", &[]).unwrap();
        });
        let (got, fds) = b.receive().unwrap();
        assert!(got == body);
        assert_eq!(fds.len(), 1);
        assert_eq!(b.receive().unwrap().0, b"");
        sender.join().unwrap();
        assert!(matches!(b.receive(), Err(ChannelError::Closed)));
    }

    #[test]
    fn a_lying_length_is_refused() {
        let (a, b) = Channel::pair().unwrap();
        rustix::net::send(&a.socket, &u32::MAX.to_le_bytes(), SendFlags::empty()).unwrap();
        assert!(matches!(b.receive(), Err(ChannelError::TooLong(_))));
        rustix::net::send(&a.socket, &[9, 0, 0, 0, 1], SendFlags::empty()).unwrap();
        assert!(matches!(b.receive(), Err(ChannelError::Malformed)));
        rustix::net::send(&a.socket, &[9], SendFlags::empty()).unwrap();
        assert!(matches!(b.receive(), Err(ChannelError::Malformed)));
    }
}

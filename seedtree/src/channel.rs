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
/// Most descriptors with one message: channel, stderr, root directory, the function's directory, its layers'.
pub const MAX_FDS: usize = 5;

/// Errors of a channel.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    /// The peer is gone.
    #[error("the sandbox process closed its socket")]
    Closed,
    /// The peer is gone and has not read all that was sent: not the last message at least. Told once, before what it had sent itself.
    #[error("the sandbox process closed its socket before it had read everything")]
    Reset,
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

impl ChannelError {
    /// Whether the call was not to wait and would have.
    pub(crate) fn would_block(&self) -> bool {
        matches!(self, ChannelError::Socket(Errno::AGAIN))
    }
}

impl From<Errno> for ChannelError {
    fn from(e: Errno) -> Self {
        match e {
            Errno::PIPE => ChannelError::Closed,
            Errno::CONNRESET => ChannelError::Reset,
            e => ChannelError::Socket(e),
        }
    }
}

/// One end.
#[derive(Debug)]
pub struct Channel<S = OwnedFd> {
    pub(crate) socket: S,
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
}

impl<S: AsFd> Channel<S> {
    /// Sends a message with descriptors. Blocks while the peer's queue is full.
    pub fn send(&self, body: &[u8], fds: &[BorrowedFd<'_>]) -> Result<(), ChannelError> {
        let mut done = self.send_first(body, fds, SendFlags::empty())?;
        while done < body.len() {
            done += self.send_more(&body[done..], SendFlags::empty())?;
        }
        Ok(())
    }

    /// Sends the header packet; how much of the body went with it. With DONTWAIT, [`ChannelError::would_block`] while the queue is full.
    pub(crate) fn send_first(
        &self,
        body: &[u8],
        fds: &[BorrowedFd<'_>],
        flags: SendFlags,
    ) -> Result<usize, ChannelError> {
        if body.len() > MAX_MESSAGE {
            return Err(ChannelError::TooLong(body.len()));
        }
        let first = &body[..body.len().min(INLINE)];
        let len = u32::try_from(body.len()).map_err(|_| ChannelError::TooLong(body.len()))?.to_le_bytes();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
            return Err(ChannelError::Malformed);
        }
        let parts = [IoSlice::new(&len), IoSlice::new(first)];
        retry(|| sendmsg(&self.socket, &parts, &mut control, SendFlags::NOSIGNAL | flags))?;
        Ok(first.len())
    }

    /// Sends the next packet of what is left of a body; how much that was.
    pub(crate) fn send_more(&self, rest: &[u8], flags: SendFlags) -> Result<usize, ChannelError> {
        let chunk = &rest[..rest.len().min(CHUNK)];
        retry(|| rustix::net::send(&self.socket, chunk, SendFlags::NOSIGNAL | flags))?;
        Ok(chunk.len())
    }

    /// Receives a message. Blocks; [`ChannelError::Closed`] at the end.
    pub fn receive(&self) -> Result<(Vec<u8>, Vec<OwnedFd>), ChannelError> {
        let mut partial = self.receive_first(RecvFlags::empty())?;
        while !partial.is_whole() {
            self.receive_more(&mut partial, RecvFlags::empty())?;
        }
        Ok((partial.body, partial.fds))
    }

    /// Receives the header packet.
    pub(crate) fn receive_first(&self, flags: RecvFlags) -> Result<Partial, ChannelError> {
        let mut len = [0; 4];
        let mut first = vec![0; INLINE];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let got = retry(|| {
            recvmsg(
                &self.socket,
                &mut [IoSliceMut::new(&mut len), IoSliceMut::new(&mut first)],
                &mut control,
                RecvFlags::CMSG_CLOEXEC | flags,
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
        Ok(Partial { body, total, fds })
    }

    /// Receives the next packet of a message.
    pub(crate) fn receive_more(&self, partial: &mut Partial, flags: RecvFlags) -> Result<(), ChannelError> {
        let start = partial.body.len();
        let end = partial.total.min(start + CHUNK);
        partial.body.resize(end, 0);
        let got = retry(|| rustix::net::recv(&self.socket, &mut partial.body[start..], flags));
        let n = got.as_ref().map_or(0, |(n, _)| *n);
        partial.body.truncate(start + n);
        got?;
        match n {
            0 => Err(ChannelError::Closed),
            n if start + n != end => Err(ChannelError::Malformed),
            _ => Ok(()),
        }
    }
}

/// A message of which a part has arrived.
#[derive(Debug)]
pub(crate) struct Partial {
    pub(crate) body: Vec<u8>,
    total: usize,
    pub(crate) fds: Vec<OwnedFd>,
}

impl Partial {
    pub(crate) fn is_whole(&self) -> bool {
        self.body.len() == self.total
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
    fn an_end_with_unread_messages_is_told_apart_and_hides_nothing() {
        let (a, b) = Channel::pair().unwrap();
        a.send(b"unread", &[]).unwrap();
        b.send(b"said before", &[]).unwrap();
        drop(b);
        assert!(matches!(a.receive(), Err(ChannelError::Reset)));
        assert_eq!(a.receive().unwrap().0, b"said before");
        assert!(matches!(a.receive(), Err(ChannelError::Closed)));
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

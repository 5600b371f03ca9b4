//! Frames: a header of ten bytes, and what it announces.

use crate::fri::error::FriError;
use crate::fri::{MESSAGE, PATIENCE};
use crate::room::Share;
use prost::bytes::{BufMut, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::timeout;
use ttrpc::proto::{
    Codec, FLAG_NO_DATA, FLAG_REMOTE_CLOSED, MESSAGE_HEADER_LENGTH, MESSAGE_TYPE_DATA, MESSAGE_TYPE_RESPONSE,
    MessageHeader, Response, Status,
};

/// A frame.
#[derive(Debug)]
pub struct Frame {
    pub header: MessageHeader,
    pub payload: Bytes,
}

/// Why no frame came.
#[derive(Debug)]
pub enum Broken {
    /// The peer has gone, or is silent in the middle of a frame.
    Gone(&'static str),
    /// The frame of this stream is longer than a message may be.
    TooLong(u32),
    /// There is no room for it; it was read to its end and thrown away.
    NoRoom(MessageHeader),
}

/// Frames up to this need no room, bytes: a connection has a buffer of that size anyway.
const SMALL: usize = 16 << 10;

/// Reads a frame whose first byte has come. A long one takes its bytes of the share.
pub async fn read(from: &mut (impl AsyncRead + Unpin), share: &mut Share) -> Result<Frame, Broken> {
    match timeout(PATIENCE, read_all(from, share)).await {
        Ok(result) => result,
        Err(_) => Err(Broken::Gone("a frame does not come to its end")),
    }
}

async fn read_all(from: &mut (impl AsyncRead + Unpin), share: &mut Share) -> Result<Frame, Broken> {
    let gone = |_| Broken::Gone("the client went away");
    let mut head = [0; MESSAGE_HEADER_LENGTH];
    from.read_exact(&mut head).await.map_err(gone)?;
    let header = MessageHeader::from(head);
    let length = usize::try_from(header.length).unwrap_or(usize::MAX);
    if length > MESSAGE {
        return Err(Broken::TooLong(header.stream_id));
    }
    if length > SMALL && share.add(length).is_err() {
        let mut rest = from.take(u64::from(header.length));
        let thrown_away = tokio::io::copy(&mut rest, &mut tokio::io::sink()).await;
        return Err(match thrown_away {
            Ok(n) if n == u64::from(header.length) => Broken::NoRoom(header),
            _ => Broken::Gone("the client went away in the middle of a frame"),
        });
    }
    let mut payload = BytesMut::with_capacity(length);
    while payload.len() < length {
        let rest = length - payload.len();
        if from.read_buf(&mut (&mut payload).limit(rest)).await.map_err(gone)? == 0 {
            return Err(Broken::Gone("the client went away in the middle of a frame"));
        }
    }
    Ok(Frame { header, payload: payload.freeze() })
}

impl Frame {
    fn new(stream_id: u32, type_: u8, flags: u8, payload: Bytes) -> Frame {
        let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
        Frame { header: MessageHeader { length, stream_id, type_, flags }, payload }
    }

    /// A message of a stream.
    pub fn data(stream_id: u32, payload: Bytes) -> Frame {
        Frame::new(stream_id, MESSAGE_TYPE_DATA, 0, payload)
    }

    /// The end of a stream that went well.
    pub fn close(stream_id: u32) -> Frame {
        Frame::new(stream_id, MESSAGE_TYPE_DATA, FLAG_REMOTE_CLOSED | FLAG_NO_DATA, Bytes::new())
    }

    /// The answer to a call that has one.
    pub fn answer(stream_id: u32, payload: Bytes) -> Frame {
        Frame::response(stream_id, ttrpc::get_status(ttrpc::Code::OK, ""), payload.into())
    }

    /// The end of a call that failed.
    pub fn error(stream_id: u32, error: &FriError) -> Frame {
        Frame::response(stream_id, super::status(error), Vec::new())
    }

    fn response(stream_id: u32, status: Status, payload: Vec<u8>) -> Frame {
        let mut response = Response::new();
        response.set_status(status);
        response.payload = payload;
        // Plain data into memory cannot fail.
        let bytes = response.encode().unwrap_or_default();
        Frame::new(stream_id, MESSAGE_TYPE_RESPONSE, 0, bytes.into())
    }

    /// Whether it is longer than a message may be.
    pub fn is_too_long(&self) -> bool {
        self.payload.len() > MESSAGE
    }

    /// Its header as it goes over the wire.
    pub fn head(&self) -> Vec<u8> {
        self.header.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::room::Room;

    fn share() -> Share {
        Room::new(0).share()
    }

    #[tokio::test]
    async fn a_long_frame_without_room_is_passed_over() {
        let frames = [Frame::data(1, vec![7; SMALL + 1].into()), Frame::data(3, Bytes::from_static(b"next"))];
        let bytes = frames.map(|frame| [frame.head(), frame.payload.to_vec()].concat()).concat();
        let mut from = bytes.as_slice();
        let first = read(&mut from, &mut share()).await;
        assert!(matches!(first, Err(Broken::NoRoom(header)) if header.stream_id == 1));
        assert_eq!(read(&mut from, &mut share()).await.unwrap().payload, "next");
        let room = Room::new(SMALL as u64 + 1);
        let mut share = room.share();
        read(&mut bytes.as_slice(), &mut share).await.unwrap();
        assert_eq!(room.free(), 0);
    }

    #[tokio::test]
    async fn frames_come_back_as_they_went() {
        let frame = Frame::data(7, Bytes::from_static(b"payload"));
        let bytes = [frame.head(), frame.payload.to_vec()].concat();
        let back = read(&mut bytes.as_slice(), &mut share()).await.unwrap();
        assert_eq!((back.header, back.payload), (frame.header, frame.payload));
        for n in 0..bytes.len() {
            assert!(matches!(read(&mut &bytes[..n], &mut share()).await, Err(Broken::Gone(_))), "{n} bytes");
        }
        let long = MessageHeader { length: u32::MAX, stream_id: 9, type_: 1, flags: 0 };
        assert!(matches!(read(&mut Vec::from(long).as_slice(), &mut share()).await, Err(Broken::TooLong(9))));
    }

    #[tokio::test(start_paused = true)]
    async fn half_a_frame_is_not_waited_for_without_end() {
        let (mut ours, theirs) = tokio::io::duplex(64);
        tokio::io::AsyncWriteExt::write_all(&mut ours, &[0; 5]).await.unwrap();
        let mut theirs = theirs;
        assert!(matches!(read(&mut theirs, &mut share()).await, Err(Broken::Gone(_))));
    }
}

//! Frames of `application/vnd.amazon.eventstream`: the encoding in which AWS services send events.
//!
//! A frame is the lengths of it all and of its headers, 4 bytes each, big-endian, and their CRC-32; the headers; the payload; and the CRC-32
//! of everything before. A header is its name's length (1 byte), its name, its type (7: text), its value's length (2 bytes), and its value.

use axum::body::Bytes;

/// The content type.
pub const CONTENT_TYPE: &str = "application/vnd.amazon.eventstream";
/// Longest payload of a part of an answer, bytes; clients take up to 16 MiB.
pub const PAYLOAD: usize = 1 << 20;
/// Longest message of an error, bytes.
const MESSAGE: usize = 1024;
/// A header's value is text.
const TEXT: u8 = 7;
/// Bytes of a frame besides headers and payload.
const FRAME: usize = 16;

/// An event: its name, and what it is.
pub fn event(name: &str, content_type: &str, payload: &[u8]) -> Bytes {
    frame(&[(":message-type", "event"), (":event-type", name), (":content-type", content_type)], payload)
}

/// The stream ends here because the service failed.
pub fn error(code: &str, message: &str) -> Bytes {
    let message = cut(message, MESSAGE);
    frame(&[(":message-type", "error"), (":error-code", code), (":error-message", message)], b"")
}

/// The beginning of a text, no longer than so many bytes.
pub fn cut(text: &str, limit: usize) -> &str {
    let end = (0..=text.len().min(limit)).rev().find(|at| text.is_char_boundary(*at));
    text.get(..end.unwrap_or(0)).unwrap_or_default()
}

/// A frame. Names are short, and values have less than 64 KiB: they are ours.
#[allow(clippy::cast_possible_truncation)]
fn frame(headers: &[(&str, &str)], payload: &[u8]) -> Bytes {
    let length = headers.iter().map(|(name, value)| 4 + name.len() + value.len()).sum::<usize>();
    let mut bytes = Vec::with_capacity(FRAME + length + payload.len());
    bytes.extend_from_slice(&((FRAME + length + payload.len()) as u32).to_be_bytes());
    bytes.extend_from_slice(&(length as u32).to_be_bytes());
    checked(&mut bytes);
    for (name, value) in headers {
        bytes.push(name.len() as u8);
        bytes.extend_from_slice(name.as_bytes());
        bytes.push(TEXT);
        bytes.extend_from_slice(&(value.len() as u16).to_be_bytes());
        bytes.extend_from_slice(value.as_bytes());
    }
    bytes.extend_from_slice(payload);
    checked(&mut bytes);
    bytes.into()
}

fn checked(bytes: &mut Vec<u8>) {
    let sum = crc32fast::hash(bytes);
    bytes.extend_from_slice(&sum.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_has_its_lengths_and_sums() {
        // Without headers and payload, as the description of the encoding has it.
        assert_eq!(
            frame(&[], b"")[..],
            [0, 0, 0, 16, 0, 0, 0, 0, 0x05, 0xc2, 0x48, 0xeb, 0x7d, 0x98, 0xc8, 0xff]
        );
        let bytes = event("PayloadChunk", "application/octet-stream", b"abc");
        assert_eq!(bytes.len(), u32::from_be_bytes(bytes[..4].try_into().unwrap()) as usize);
        let headers = u32::from_be_bytes(bytes[4..8].try_into().unwrap()) as usize;
        assert_eq!(&bytes[12 + headers..bytes.len() - 4], b"abc");
        assert!(
            bytes[12..].starts_with(b"\x0d:message-type\x07\0\x05event\x0b:event-type\x07\0\x0cPayloadChunk")
        );
        let sum = crc32fast::hash(&bytes[..bytes.len() - 4]);
        assert_eq!(bytes[bytes.len() - 4..], sum.to_be_bytes());
    }

    #[test]
    fn a_long_message_is_cut_between_characters() {
        let bytes = error("Code", &"ü".repeat(2000));
        assert!(bytes.len() < 1200 && bytes.windows(2).any(|w| w == "ü".as_bytes()));
    }
}

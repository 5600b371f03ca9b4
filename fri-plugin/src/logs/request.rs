//! What one request prints, on its way to the log of its function.

use super::FunctionLog;
use super::line::{LONGEST, Line, Stream};
use seedtree::node::instance::Sink;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// Most bytes that come back with an answer (X-Amz-Log-Result of AWS Lambda).
pub const TAIL: usize = 4 << 10;

/// Cuts what is printed into lines, and keeps the last bytes as they were.
#[derive(Debug)]
pub struct RequestLog {
    log: Arc<FunctionLog>,
    request: String,
    instance: String,
    /// The line that has not ended yet.
    partial: Vec<u8>,
    tail: Vec<u8>,
}

impl RequestLog {
    pub(super) fn new(log: Arc<FunctionLog>, request_id: &str) -> RequestLog {
        let (partial, tail) = (Vec::new(), Vec::new());
        RequestLog { log, request: request_id.to_owned(), instance: String::new(), partial, tail }
    }

    /// Names the instance in the lines from here on.
    pub fn set_instance(&mut self, instance: &str) {
        instance.clone_into(&mut self.instance);
    }

    /// Adds a line of the node's own, as AWS Lambda's START, END and REPORT.
    pub fn platform(&mut self, text: &str) {
        self.end_line();
        self.keep(text.as_bytes());
        self.keep(b"\n");
        self.add(Stream::Platform, text.to_owned());
    }

    /// The last bytes, at most [`TAIL`].
    pub fn tail(&self) -> &[u8] {
        &self.tail
    }

    #[cfg(test)]
    pub(super) fn partial_bytes(&self) -> usize {
        self.partial.len()
    }

    fn keep(&mut self, bytes: &[u8]) {
        let last = bytes.len().saturating_sub(TAIL);
        self.tail.extend_from_slice(bytes.get(last..).unwrap_or_default());
        let surplus = self.tail.len().saturating_sub(TAIL);
        self.tail.drain(..surplus);
    }

    fn add(&self, stream: Stream, text: String) {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.log.add(Line {
            time_ns: u64::try_from(since.as_nanos()).unwrap_or(u64::MAX),
            function: self.log.function().to_owned(),
            request: self.request.clone(),
            instance: self.instance.clone(),
            stream,
            text,
        });
    }

    /// What is there so far becomes a line.
    fn end_line(&mut self) {
        if !self.partial.is_empty() {
            let text = String::from_utf8_lossy(&self.partial).into_owned();
            self.partial.clear();
            self.add(Stream::Output, text);
        }
    }

    fn take(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let room = LONGEST - self.partial.len();
            let end = bytes.iter().take(room).position(|b| *b == b'\n');
            let (part, rest) = bytes.split_at(end.unwrap_or(room.min(bytes.len())));
            self.partial.extend_from_slice(part);
            if let Some((_, after)) = rest.split_first().filter(|_| end.is_some()) {
                // An empty line is one too.
                if self.partial.is_empty() {
                    self.add(Stream::Output, String::new());
                }
                self.end_line();
                bytes = after;
            } else {
                bytes = rest;
                if self.partial.len() >= LONGEST {
                    self.cut();
                }
            }
        }
    }

    /// Ends a line that is too long, not in the middle of a character.
    fn cut(&mut self) {
        let keep = match std::str::from_utf8(&self.partial) {
            Err(error) if error.error_len().is_none() => error.valid_up_to(),
            _ => self.partial.len(),
        };
        let rest = self.partial.split_off(keep);
        self.end_line();
        self.partial = rest;
    }
}

impl Sink for RequestLog {
    fn printed(&mut self, bytes: &[u8]) {
        self.keep(bytes);
        self.take(bytes);
    }
}

impl Drop for RequestLog {
    fn drop(&mut self) {
        self.end_line();
    }
}

//! One request to a function.

use super::Daemon;
use super::error::DaemonError;
use seedtree::node::Served;
use seedtree::node::instance::Sink;

/// A request.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    /// Whom it is for.
    pub function: &'a str,
    /// The event: JSON, at most [`seedtree::runtime::MAX_PAYLOAD`] bytes.
    pub event: &'a [u8],
    /// Its identity, which the handler sees too; [`new_request_id`] makes one.
    pub request_id: &'a str,
    /// Less time than the function's own limit, ms.
    pub timeout_ms: Option<u64>,
}

/// What a request came to.
#[derive(Debug)]
pub struct Invoked {
    /// The runtime's answer, which may be the function's own error; or why there is none.
    pub result: Result<Served, DaemonError>,
    /// Version of the function that served.
    pub version: u64,
    /// The last of what it printed, at most [`LOG_TAIL`] bytes.
    pub log_tail: Vec<u8>,
}

/// Most bytes of the log that come back with an answer, as on AWS Lambda.
pub const LOG_TAIL: usize = 4 << 10;

/// A new identity for a request: a random UUID, as AWS Lambda's.
pub fn new_request_id() -> String {
    uuid::Uuid::new_v4().to_string()
}

impl Daemon {
    /// Serves a request. What the function prints goes to `also` as it comes, besides to the function's log.
    ///
    /// Dropped midway, it ends the instance.
    pub async fn invoke(&self, call: Call<'_>, also: &mut dyn Sink) -> Invoked {
        let mut sink = Tail { kept: Vec::new(), also };
        let result = self.node().invoke(call.function, call.event, call.request_id, &mut sink).await;
        let result = result.map_err(DaemonError::from);
        self.metrics().invoked(call.function, &result);
        let version = super::lock(&self.0.serving).get(call.function).map_or(0, |s| s.number);
        Invoked { result, version, log_tail: sink.kept }
    }
}

/// Keeps the last bytes, and passes all on.
struct Tail<'a> {
    kept: Vec<u8>,
    also: &'a mut dyn Sink,
}

impl Sink for Tail<'_> {
    fn printed(&mut self, bytes: &[u8]) {
        self.kept.extend_from_slice(bytes);
        let surplus = self.kept.len().saturating_sub(LOG_TAIL);
        self.kept.drain(..surplus);
        self.also.printed(bytes);
    }
}

//! One request to a function.

use super::Daemon;
use super::error::DaemonError;
use crate::logs::RequestLog;
use crate::metrics::Metrics;
use seedtree::node::Served;
use seedtree::node::error::NodeError;
use seedtree::node::instance::Sink;
use seedtree::runtime::Reply;
use serde_json::Value;
use tokio::sync::mpsc;

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
    /// Only this version of the function may serve it.
    pub version: Option<u64>,
}

/// What a request came to.
#[derive(Debug)]
pub struct Invoked {
    /// The runtime's answer, which may be the function's own error; or why there is none.
    pub result: Result<Served, DaemonError>,
    /// Version of the function that served, or would have; 0 where it was not looked for.
    pub version: u64,
    /// The last of what it printed, at most [`LOG_TAIL`] bytes.
    pub log_tail: Vec<u8>,
}

impl Invoked {
    fn refused(error: NodeError) -> Invoked {
        Invoked { result: Err(error.into()), version: 0, log_tail: Vec::new() }
    }
}

pub use crate::logs::TAIL as LOG_TAIL;

/// A new identity for a request: a random UUID, as AWS Lambda's.
pub fn new_request_id() -> String {
    uuid::Uuid::new_v4().to_string()
}

impl Daemon {
    /// Serves a request. What the function prints goes to `also` as it comes, besides to the function's log.
    ///
    /// Dropped midway, it ends the instance, and counts as an error of the code `Request.Abandoned`: the client has left.
    pub async fn invoke(&self, call: Call<'_>, also: &mut dyn Sink) -> Invoked {
        if self.node().function(call.function).is_err() {
            return Invoked::refused(NodeError::NoSuchFunction(call.function.to_owned()));
        }
        self.answered(call.function, None, &call, also).await
    }

    /// The same with an instance that the caller owns ([`seedtree::node::Node::fork_ahead`]), whatever function the call names.
    pub async fn activate(&self, id: &str, call: Call<'_>, also: &mut dyn Sink) -> Invoked {
        let function = self.node().instances().remove(id).map(|instance| instance.function);
        let Some(function) = function else {
            return Invoked::refused(NodeError::NoSuchInstance(id.to_owned()));
        };
        self.answered(&function, Some(id), &call, also).await
    }

    /// Has a request served by an instance of the node's choice, or by the one that is named; with its log and its counts.
    async fn answered(
        &self,
        function: &str,
        instance: Option<&str>,
        call: &Call<'_>,
        also: &mut dyn Sink,
    ) -> Invoked {
        let log = self.0.logs.request(function, call.request_id);
        let mut sink = Both { log, also, version: 0, function, waiting: Some(self.metrics()) };
        let Call { event, request_id, timeout_ms: limit_ms, version, .. } = *call;
        let asked = seedtree::node::Call { event, request_id, limit_ms, version };
        let result = match instance {
            Some(id) => self.node().activate(id, &asked, &mut sink).await,
            None => self.node().call(function, &asked, &mut sink).await,
        };
        let result = result.map_err(DaemonError::from);
        sink.waiting = None;
        self.metrics().invoked(function, &result);
        let log_tail = sink.log.tail().to_vec();
        if let Some(failure) = failure(&result) {
            sink.log.platform(&failure);
        }
        Invoked { result, version: sink.version, log_tail }
    }
}

/// What the log has of a request that the function failed, beside what it printed itself.
fn failure(result: &Result<Served, DaemonError>) -> Option<String> {
    match result {
        Ok(Served { reply: Reply::Error(error), .. }) => Some(format!("[ERROR] {}", described(error))),
        Err(DaemonError::Node(NodeError::Abandoned)) => Some(abandoned()),
        Err(DaemonError::Node(error)) if error.is_functions() => {
            Some(format!("[ERROR] {}: {error}", error.code()))
        }
        _ => None,
    }
}

/// The same of one whose client has left.
fn abandoned() -> String {
    let left = NodeError::Abandoned;
    format!("[ERROR] {}: {left}", left.code())
}

/// A function's own description of its error, for people: its type, its message, and where it came from.
pub fn described(error: &[u8]) -> String {
    let Ok(error) = serde_json::from_slice::<Value>(error) else {
        return String::from_utf8_lossy(error).into_owned();
    };
    let text = |key: &str| error.get(key).and_then(Value::as_str).unwrap_or_default();
    let mut lines = format!("{}: {}", text("errorType"), text("errorMessage"));
    let trace = error.get("stackTrace").or_else(|| error.get("trace")).and_then(Value::as_array);
    for line in trace.into_iter().flatten().filter_map(Value::as_str) {
        lines.push('\n');
        lines.push_str(line.trim_end_matches('\n'));
    }
    lines
}

/// Prints to the log and to whom the caller named, who alone gets the answer's parts.
struct Both<'a> {
    log: RequestLog,
    also: &'a mut dyn Sink,
    version: u64,
    function: &'a str,
    /// Where a request is counted whose client does not wait for its end.
    waiting: Option<&'a Metrics>,
}

impl Drop for Both<'_> {
    fn drop(&mut self) {
        if let Some(metrics) = self.waiting {
            metrics.abandoned(self.function);
            self.log.platform(&abandoned());
        }
    }
}

impl Sink for Both<'_> {
    fn printed(&mut self, bytes: &[u8]) {
        self.log.printed(bytes);
        self.also.printed(bytes);
    }

    fn entered(&mut self, version: u64) {
        self.version = version;
        self.also.entered(version);
    }

    fn began(&mut self, instance: &str) {
        self.log.set_instance(instance);
        self.also.began(instance);
    }

    fn parts(&self) -> Option<&mpsc::Sender<Vec<u8>>> {
        self.also.parts()
    }
}

#[cfg(test)]
mod tests {
    use super::described;

    #[test]
    fn errors_are_described_for_people() {
        let python =
            br#"{"errorType": "ValueError", "errorMessage": "no", "stackTrace": ["  one\n", "  two"]}"#;
        assert_eq!(described(python), "ValueError: no\n  one\n  two");
        assert_eq!(described(b"not JSON"), "not JSON");
    }
}

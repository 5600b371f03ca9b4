//! One request to a function.

use super::Daemon;
use super::error::{DaemonError, Kind, chain};
use crate::logs::RequestLog;
use crate::metrics::Metrics;
use crate::rarely::Rarely;
use seedtree::caller::Caller;
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
    /// What the function is told of the client.
    pub caller: Option<&'a Caller>,
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
        let metrics = self.metrics();
        let mut sink = Both { log, also, version: 0, function, metrics, waiting: true, begun: false };
        let Call { event, request_id, timeout_ms: limit_ms, version, caller, .. } = *call;
        let asked = seedtree::node::Call { event, request_id, limit_ms, version, caller };
        let result = match instance {
            Some(id) => self.node().activate(id, &asked, &mut sink).await,
            None => self.node().call(function, &asked, &mut sink).await,
        };
        let result = result.map_err(DaemonError::from);
        sink.waiting = false;
        self.metrics().invoked(function, &result);
        let log_tail = sink.log.tail().to_vec();
        if let Some(failure) = failure(&result) {
            sink.log.platform(&failure);
        }
        if let Err(error) = &result
            && is_nodes(error)
        {
            warn(function, call.request_id, error);
        }
        Invoked { result, version: sink.version, log_tail }
    }
}

/// What the log has of a request that the function or the node failed, beside what the function printed itself.
fn failure(result: &Result<Served, DaemonError>) -> Option<String> {
    match result {
        Ok(Served { reply: Reply::Error(error), .. }) => Some(format!("[ERROR] {}", described(error))),
        Err(DaemonError::Node(NodeError::Abandoned)) => Some(abandoned()),
        Err(DaemonError::Node(error)) if error.is_functions() => {
            Some(format!("[ERROR] {}: {error}", error.code()))
        }
        Err(error) if is_nodes(error) => Some(format!("[ERROR] {}: {}", error.code(), chain(error))),
        _ => None,
    }
}

/// Whether neither the function nor its client could help it: the node failed the request, or somebody ended its instance.
fn is_nodes(error: &DaemonError) -> bool {
    matches!(error.kind(), Kind::Internal | Kind::Unavailable)
        && !matches!(error, DaemonError::Node(NodeError::Abandoned))
        || matches!(error, DaemonError::Node(NodeError::Killed))
}

/// Tells the daemon's log, where it has not been told just now.
fn warn(function: &str, request: &str, error: &DaemonError) {
    static FAILED: Rarely = Rarely::new();
    if let Some(count) = FAILED.happened() {
        let (code, error) = (error.code(), chain(error));
        tracing::warn!(
            function,
            request,
            code,
            error,
            count,
            "a request failed, which is not the function's fault"
        );
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
    metrics: &'a Metrics,
    /// Whether its client waits for its end.
    waiting: bool,
    /// Whether an instance has been given it.
    begun: bool,
}

impl Drop for Both<'_> {
    fn drop(&mut self) {
        if self.waiting {
            self.metrics.abandoned(self.function);
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
        // One that finds its instance dead is given to another.
        if !std::mem::replace(&mut self.begun, true) {
            self.metrics.began(self.function);
        }
        self.also.began(instance);
    }

    fn parts(&self) -> Option<&mpsc::Sender<Vec<u8>>> {
        self.also.parts()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use seedtree::proto::Failure;

    #[test]
    fn errors_are_described_for_people() {
        let python =
            br#"{"errorType": "ValueError", "errorMessage": "no", "stackTrace": ["  one\n", "  two"]}"#;
        assert_eq!(described(python), "ValueError: no\n  one\n  two");
        assert_eq!(described(b"not JSON"), "not JSON");
    }

    #[test]
    fn the_log_has_what_the_node_failed_and_not_what_the_client_did() {
        let full = std::io::Error::from(std::io::ErrorKind::StorageFull);
        let seedless = NodeError::NoSeed { function: "f".into(), reason: "none".into() };
        for error in [NodeError::Host(full), seedless, NodeError::Killed, NodeError::Draining] {
            let error = DaemonError::from(error);
            let begin = format!("[ERROR] {}: {}", error.code(), chain(&error));
            assert!(is_nodes(&error) && failure(&Err(error)).is_some_and(|text| text == begin), "{begin}");
        }
        for error in [
            NodeError::NoSuchFunction("f".into()),
            NodeError::EventTooLong(1),
            NodeError::InstanceBusy("i".into()),
            NodeError::TooManyRequests { function: "f".into(), limit: 1, queued: 1 },
        ] {
            let error = DaemonError::from(error);
            assert!(!is_nodes(&error), "{error}");
            assert_eq!(failure(&Err(error)), None);
        }
        for error in [NodeError::Abandoned, NodeError::Function(Failure::Exited(1))] {
            assert!(!is_nodes(&error.into()));
        }
    }
}

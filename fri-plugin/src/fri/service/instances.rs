//! The service `Instances`.

use super::task::Bound;
use super::{Incoming, Outgoing, Service, payload};
use crate::daemon::Daemon;
use crate::daemon::error::DaemonError;
use crate::daemon::invoke::{Call, Invoked, new_request_id};
use crate::fri::error::FriError;
use crate::proto;
use crate::proto::invoke_response::Part as Answer;
use async_stream::try_stream;
use futures::StreamExt;
use prost::bytes::{Bytes, BytesMut};
use seedtree::node::error::NodeError;
use seedtree::node::instance::{Nowhere, Sink};
use seedtree::node::{Listed, State};
use seedtree::runtime::Reply;
use std::sync::{Arc, Mutex};
use tokio::sync::Notify;

/// Longest identity of a request, bytes.
const REQUEST_ID: usize = 128;
/// Output that waits for a slow client, bytes; what is printed beyond it is not sent, and counted.
const LOG_WAITING: usize = 1 << 20;

/// Who is to serve a request.
enum Target {
    /// An instance of this function, of the node's choice.
    Function(String),
    /// This one, which the client owns.
    Instance(String),
}

/// One request.
struct Asked {
    target: Target,
    request_id: String,
    timeout_ms: Option<u64>,
    event: Bytes,
}

impl Service {
    /// `Instances.Invoke`.
    pub async fn invoke(
        &self,
        mut input: Incoming<proto::InvokeRequest>,
    ) -> Result<Outgoing<proto::InvokeResponse>, FriError> {
        use proto::invoke_request::Part;
        let Some(Part::Head(head)) = input.next().await.transpose()?.and_then(|r| r.part) else {
            return Err(FriError::Malformed(NO_HEAD));
        };
        let request_id = request_id(head.request_id)?;
        let rest = input.map(|message| match message?.part {
            Some(Part::Chunk(chunk)) => payload::chunk(chunk),
            _ => Err(FriError::Malformed(NO_CHUNK)),
        });
        let event = self.0.intake.collect(head.payload, rest).await?;
        let timeout_ms = (head.timeout_ms > 0).then_some(head.timeout_ms);
        let target = Target::Function(head.function);
        self.run(Asked { target, request_id, timeout_ms, event }, head.logs).await
    }

    /// `Instances.Activate`.
    pub async fn activate(
        &self,
        mut input: Incoming<proto::ActivateRequest>,
    ) -> Result<Outgoing<proto::InvokeResponse>, FriError> {
        use proto::activate_request::Part;
        let Some(Part::Head(head)) = input.next().await.transpose()?.and_then(|r| r.part) else {
            return Err(FriError::Malformed(NO_HEAD));
        };
        let request_id = request_id(head.request_id)?;
        let rest = input.map(|message| match message?.part {
            Some(Part::Chunk(chunk)) => payload::chunk(chunk),
            _ => Err(FriError::Malformed(NO_CHUNK)),
        });
        let event = self.0.intake.collect(head.payload, rest).await?;
        let timeout_ms = (head.timeout_ms > 0).then_some(head.timeout_ms);
        let target = Target::Instance(head.id);
        self.run(Asked { target, request_id, timeout_ms, event }, head.logs).await
    }

    async fn run(&self, asked: Asked, logs: bool) -> Result<Outgoing<proto::InvokeResponse>, FriError> {
        if logs {
            return Ok(self.run_with_logs(asked));
        }
        let parts = asked.serve(self.daemon(), &mut Nowhere).await?;
        Ok(futures::stream::iter(parts.map(Ok)).boxed())
    }

    fn run_with_logs(&self, asked: Asked) -> Outgoing<proto::InvokeResponse> {
        let printed = Printed::default();
        let (daemon, mut sink) = (self.daemon().clone(), printed.clone());
        // In a task of its own: its limits hold also while the client takes nothing.
        let mut task = Bound::start(async move { asked.serve(&daemon, &mut sink).await });
        try_stream! {
            let last = loop {
                let ended = tokio::select! {
                    biased;
                    () = printed.more() => None,
                    result = task.result() => Some(result),
                };
                if let Some(ended) = ended {
                    break ended?;
                }
                if let Some(log) = printed.take() {
                    yield respond(Answer::Log(log));
                }
            };
            // Also before an error: it is what the function said last.
            if let Some(log) = printed.take() {
                yield respond(Answer::Log(log));
            }
            for part in last? {
                yield part;
            }
        }
        .boxed()
    }

    /// `Instances.List`.
    pub async fn instances(
        &self,
        request: proto::ListInstancesRequest,
    ) -> Result<proto::ListInstancesResponse, FriError> {
        let now = seedtree::sandbox::now();
        let all = self.daemon().node().instances().into_iter();
        let wanted = all.filter(|(_, i)| request.function.is_empty() || i.function == request.function);
        let instances = wanted.map(|(id, listed)| describe(id, listed, now)).collect();
        Ok(proto::ListInstancesResponse { instances })
    }

    /// `Instances.Destroy`.
    pub async fn destroy(&self, request: proto::DestroyRequest) -> Result<proto::DestroyResponse, FriError> {
        self.daemon().node().kill(&request.id)?;
        Ok(proto::DestroyResponse {})
    }

    /// `Instances.Fork`.
    pub async fn fork(&self, request: proto::ForkRequest) -> Result<proto::Instance, FriError> {
        let node = self.daemon().node();
        let id = node.fork_ahead(&request.function).await?;
        let listed = node.instances().remove(&id);
        // Somebody else may have ended it already.
        let listed = listed.ok_or_else(|| NodeError::NoSuchInstance(id.clone()))?;
        Ok(describe(id, listed, seedtree::sandbox::now()))
    }
}

impl Asked {
    /// Serves it. A function's own failure is an answer too.
    async fn serve(
        self,
        daemon: &Daemon,
        sink: &mut dyn Sink,
    ) -> Result<impl Iterator<Item = proto::InvokeResponse> + Send + use<>, FriError> {
        let (event, request_id, timeout_ms) =
            (self.event.as_ref(), self.request_id.as_str(), self.timeout_ms);
        let invoked = match &self.target {
            Target::Function(function) => {
                daemon.invoke(Call { function, event, request_id, timeout_ms, version: None }, sink).await
            }
            Target::Instance(id) => {
                daemon
                    .activate(id, Call { function: "", event, request_id, timeout_ms, version: None }, sink)
                    .await
            }
        };
        answer(invoked, self.request_id)
    }
}

const NO_HEAD: &str = "the first message of a request must be its head";
const NO_CHUNK: &str = "after its head a request has chunks only";

/// The client's identity of a request, or a new one. It reaches logs and HTTP headers.
fn request_id(given: String) -> Result<String, FriError> {
    if given.is_empty() {
        return Ok(new_request_id());
    }
    if given.len() > REQUEST_ID || !given.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(FriError::Malformed(
            "a request_id has at most 128 printable ASCII characters, no spaces",
        ));
    }
    Ok(given)
}

fn describe(id: String, listed: Listed, now: u64) -> proto::Instance {
    proto::Instance {
        id,
        function: listed.function,
        pid: listed.pid,
        level: listed.level.into(),
        state: state(listed.state).into(),
        age_ns: now.saturating_sub(listed.since),
    }
}

fn state(state: State) -> &'static str {
    match state {
        State::Working => "working",
        State::Spare => "spare",
        State::Kept => "kept",
        State::Idle => "idle",
    }
}

fn respond(part: Answer) -> proto::InvokeResponse {
    proto::InvokeResponse { part: Some(part) }
}

/// What a request came to, as it is sent. A function's own failure is an answer too.
fn answer(
    invoked: Invoked,
    request_id: String,
) -> Result<impl Iterator<Item = proto::InvokeResponse> + Send, FriError> {
    let mut end = proto::InvokeEnd { request_id, version: invoked.version, ..Default::default() };
    let bytes = match invoked.result {
        Ok(served) => {
            end.instance = served.instance;
            end.level = served.level.into();
            end.spare = served.spare;
            end.kept = served.kept;
            end.phases = Some(proto::Phases {
                queued_ns: served.queued,
                total_ns: served.total,
                clone_ns: served.phases.clone,
                vm_ns: served.phases.vm,
                prefill_ns: served.phases.prefill,
                run_ns: served.phases.run,
                exits: served.phases.exits,
                faults: served.phases.faults,
            });
            match served.reply {
                Reply::Result(bytes) => bytes,
                Reply::Error(bytes) => {
                    end.function_error = UNHANDLED.into();
                    bytes
                }
                Reply::Imported | Reply::Malformed => return Err(FriError::Internal),
            }
        }
        Err(error) => match description(&error) {
            Some(bytes) => {
                end.function_error = UNHANDLED.into();
                bytes
            }
            None => return Err(error.into()),
        },
    };
    let parts = payload::chunks(bytes).map(Answer::Chunk).chain(std::iter::once(Answer::End(end)));
    Ok(parts.map(respond))
}

/// AWS Lambda's word for every error of a function.
const UNHANDLED: &str = "Unhandled";

/// A function's failure as AWS Lambda describes it; `None` where it is not the function's.
fn description(error: &DaemonError) -> Option<Vec<u8>> {
    if let Some(own) = error.function_says() {
        return Some(own.to_owned());
    }
    let DaemonError::Node(node) = error else { return None };
    node.is_functions().then(|| {
        serde_json::json!({"errorType": error.code(), "errorMessage": error.to_string()})
            .to_string()
            .into_bytes()
    })
}

/// What a function has printed and the client has not taken yet.
#[derive(Clone, Debug, Default)]
struct Printed(Arc<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    bytes: Mutex<(BytesMut, usize)>,
    more: Notify,
}

impl Printed {
    async fn more(&self) {
        self.0.more.notified().await;
    }

    fn take(&self) -> Option<Bytes> {
        let (mut bytes, lost) = std::mem::take(&mut *crate::daemon::lock(&self.0.bytes));
        if lost > 0 {
            bytes.extend_from_slice(
                format!("\n[{lost} bytes more were printed than you took in time]\n").as_bytes(),
            );
        }
        (!bytes.is_empty()).then(|| bytes.freeze())
    }
}

impl Sink for Printed {
    fn printed(&mut self, new: &[u8]) {
        let mut waiting = crate::daemon::lock(&self.0.bytes);
        let room = LOG_WAITING.saturating_sub(waiting.0.len()).min(new.len());
        let (kept, lost) = new.split_at(room);
        waiting.0.extend_from_slice(kept);
        waiting.1 += lost.len();
        drop(waiting);
        self.0.more.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_that_nobody_takes_is_bounded_and_counted() {
        let mut printed = Printed::default();
        assert_eq!(printed.take(), None);
        printed.printed(b"one ");
        printed.printed(b"two");
        assert_eq!(printed.take().unwrap(), "one two");
        for _ in 0..3 {
            printed.printed(&vec![b'x'; LOG_WAITING / 2]);
        }
        let taken = printed.take().unwrap();
        let text = String::from_utf8_lossy(&taken);
        assert!(
            text.ends_with(&format!("[{} bytes more were printed than you took in time]\n", LOG_WAITING / 2))
        );
        assert!(taken.len() < LOG_WAITING + 100);
        assert_eq!(printed.take(), None);
    }

    #[test]
    fn identities_of_requests_are_plain() {
        assert_eq!(request_id("a-1".into()).unwrap(), "a-1");
        assert_eq!(request_id(String::new()).unwrap().len(), 36);
        for bad in ["a b", "a\r\nX: y", "é", &"x".repeat(129)] {
            assert_eq!(request_id(bad.into()).unwrap_err().code(), "Request.Malformed", "{bad}");
        }
    }
}

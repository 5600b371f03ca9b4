//! What a request came to, as it is sent.

use super::payload;
use crate::daemon::error::DaemonError;
use crate::daemon::invoke::Invoked;
use crate::fri::error::FriError;
use crate::proto;
use crate::proto::invoke_response::Part as Answer;
use prost::bytes::{Bytes, BytesMut};
use seedtree::node::instance::Sink;
use seedtree::runtime::Reply;
use std::sync::{Arc, Mutex};
use tokio::sync::Notify;

/// Output that waits for a slow client, bytes; what is printed beyond it is not sent, and counted.
const LOG_WAITING: usize = 1 << 20;

/// A message of the answer.
pub fn respond(part: Answer) -> proto::InvokeResponse {
    proto::InvokeResponse { part: Some(part) }
}

/// What a request came to, as it is sent. A function's own failure is an answer too; its description goes as `error` says.
pub fn parts(
    invoked: Invoked,
    request_id: String,
    error: fn(Bytes) -> Answer,
) -> Result<impl Iterator<Item = proto::InvokeResponse> + Send, FriError> {
    let mut end = proto::InvokeEnd { request_id, version: invoked.version, ..Default::default() };
    let (bytes, failed) = match invoked.result {
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
                Reply::Result(bytes) => (bytes, false),
                Reply::Error(bytes) => (bytes, true),
                Reply::Imported | Reply::Malformed => return Err(FriError::Internal),
            }
        }
        Err(why) => match description(&why) {
            Some(bytes) => (bytes, true),
            None => return Err(why.into()),
        },
    };
    let mut kind: fn(Bytes) -> Answer = Answer::Chunk;
    if failed {
        end.function_error = UNHANDLED.into();
        kind = error;
    }
    let parts = payload::chunks(bytes.into()).map(kind).chain(std::iter::once(Answer::End(end)));
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
#[derive(Clone, Debug)]
pub struct Printed(Arc<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    wanted: bool,
    bytes: Mutex<(BytesMut, usize)>,
    more: Notify,
}

impl Printed {
    /// Of one request. What is not wanted is not kept.
    pub fn new(wanted: bool) -> Printed {
        Printed(Arc::new(Waiting { wanted, ..Waiting::default() }))
    }

    /// Waits until there is more.
    pub async fn more(&self) {
        self.0.more.notified().await;
    }

    /// What there is.
    pub fn take(&self) -> Option<Bytes> {
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
        if !self.0.wanted {
            return;
        }
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
        let mut printed = Printed::new(true);
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
}

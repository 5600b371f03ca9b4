//! A request that is served in a task of its own, and the parts of its answer as they come.
//!
//! Its limits hold also while nobody takes what it answers: a function that streams waits for its client, no longer than its own time, and of
//! its answer no more is held than one part and those on their way.

use super::Daemon;
use super::invoke::{Call, Invoked};
use crate::task::{Bound, Panicked};
use prost::bytes::Bytes;
use seedtree::caller::Caller;
use seedtree::node::instance::Sink;
use tokio::sync::mpsc;

/// Parts that wait for the client.
const WAITING: usize = 1;

/// Who is to serve a request.
#[derive(Clone, Debug)]
pub enum Target {
    /// An instance of this function, of the node's choice.
    Function(String),
    /// This one, which the client owns.
    Instance(String),
}

/// A request, with all that it needs.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Whom it is for.
    pub target: Target,
    /// As [`Call::request_id`].
    pub request_id: String,
    /// As [`Call::timeout_ms`].
    pub timeout_ms: Option<u64>,
    /// As [`Call::version`].
    pub version: Option<u64>,
    /// As [`Call::caller`].
    pub caller: Option<Caller>,
    /// As [`Call::event`].
    pub event: Bytes,
}

impl Asked {
    /// Serves it.
    pub async fn serve(&self, daemon: &Daemon, sink: &mut dyn Sink) -> Invoked {
        let call = |function| Call {
            function,
            event: &self.event,
            request_id: &self.request_id,
            timeout_ms: self.timeout_ms,
            version: self.version,
            caller: self.caller.as_ref(),
        };
        match &self.target {
            Target::Function(function) => daemon.invoke(call(function), sink).await,
            Target::Instance(id) => daemon.activate(id, call(""), sink).await,
        }
    }

    /// Has it served. `sink` goes when the request is over. Where parts are not wanted there are none, and the answer comes at once.
    pub fn begin(self, daemon: &Daemon, sink: impl Sink + 'static, wants_parts: bool) -> Streamed {
        let daemon = daemon.clone();
        let (sender, parts) = mpsc::channel(WAITING);
        let mut sink = Parted { sink, parts: wants_parts.then_some(sender) };
        Streamed { parts, task: Bound::start(async move { self.serve(&daemon, &mut sink).await }) }
    }
}

/// A request under way. Dropped, it is given up, and its instance ends.
#[derive(Debug)]
pub struct Streamed {
    parts: mpsc::Receiver<Vec<u8>>,
    task: Bound<Invoked>,
}

/// What comes of a request.
#[derive(Debug)]
pub enum Next {
    /// A part of the answer.
    Part(Bytes),
    /// Last: after parts an empty result, or an error; then the parts are no whole answer.
    End(Box<Invoked>),
}

impl Streamed {
    /// What comes next. May be dropped and called again until the end has come.
    pub async fn next(&mut self) -> Result<Next, Panicked> {
        // The sender goes with the task: every part comes before the end.
        match self.parts.recv().await {
            Some(part) => Ok(Next::Part(part.into())),
            None => self.task.result().await.map(|invoked| Next::End(Box::new(invoked))),
        }
    }
}

/// A sink, with parts.
struct Parted<S> {
    sink: S,
    parts: Option<mpsc::Sender<Vec<u8>>>,
}

impl<S: Sink> Sink for Parted<S> {
    fn printed(&mut self, bytes: &[u8]) {
        self.sink.printed(bytes);
    }

    fn entered(&mut self, version: u64) {
        self.sink.entered(version);
    }

    fn began(&mut self, instance: &str) {
        self.sink.began(instance);
    }

    fn parts(&self) -> Option<&mpsc::Sender<Vec<u8>>> {
        self.parts.as_ref()
    }
}

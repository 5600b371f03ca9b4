//! An instance at work: its channel, its process, and what it prints.

use super::error::NodeError;
use super::seed::Forked;
use crate::proto::{Event, Failure, Measures, Phases, Request};
use crate::runtime::{MAX_PART, MAX_PAYLOAD, MAX_STREAMED, Reply};
use crate::sandbox::now;
use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::unix::pipe;
use tokio::sync::{Notify, mpsc};

/// How much longer than its own limit the node waits for an instance before it kills it.
const GRACE: Duration = Duration::from_secs(2);
/// Most bytes of one request's output that are kept; what comes before the last ones is dropped.
pub const LOG_KEPT: usize = 64 << 10;

/// What an instance gave back.
#[derive(Debug)]
pub struct Answer {
    /// The runtime's answer.
    pub reply: Reply,
    /// Phases of the fork.
    pub phases: Phases,
}

/// What was printed, as it comes.
pub trait Sink: Send {
    /// Takes what an instance has printed.
    fn printed(&mut self, bytes: &[u8]);

    /// Hears which version of the function serves: it stays the same, also where another one takes its place meanwhile, or the request fails.
    fn entered(&mut self, version: u64) {
        let _ = version;
    }

    /// Hears which instance prints from now on.
    fn began(&mut self, instance: &str) {
        let _ = instance;
    }

    /// Where parts of the answer go, of at most [`MAX_PART`] bytes each, for a caller who wants them as they are made: a Python handler may
    /// then return an iterator of str or bytes, and a Node.js handler be one of `awslambda.streamifyResponse`. The function waits while the
    /// channel is full; a channel that is closed ends it ([`NodeError::Abandoned`]). After the parts the reply is an empty result, or the
    /// function's error; a handler that answers at once gives its result as ever, and no part.
    fn parts(&self) -> Option<&mpsc::Sender<Vec<u8>>> {
        None
    }
}

/// An instance.
#[derive(Debug)]
pub struct Instance {
    /// Its identity on this node.
    pub id: String,
    /// Level of the seed that it came from.
    pub level: u8,
    /// Whether it was forked ahead of its request.
    pub spare: bool,
    /// Whether a client owns it.
    pub owned: bool,
    /// Requests that it has answered.
    pub served: u64,
    /// CLOCK_MONOTONIC, ns.
    pub born: u64,
    forked: Forked,
    output: pipe::Receiver,
    killed: Arc<Notify>,
}

/// The pipe for an instance's stdout and stderr: the guest's end, and ours.
pub fn output_pipe() -> std::io::Result<(Arc<OwnedFd>, pipe::Receiver)> {
    let (reader, writer) = std::io::pipe()?;
    // Our end only: the other belongs to the guest. That it is a pipe's need not be checked.
    rustix::io::ioctl_fionbio(&reader, true)?;
    let reader = pipe::Receiver::from_owned_fd_unchecked(OwnedFd::from(reader))?;
    Ok((Arc::new(OwnedFd::from(writer)), reader))
}

impl Instance {
    /// Takes over a child.
    pub fn new(id: String, level: u8, spare: bool, forked: Forked, output: pipe::Receiver) -> Instance {
        let (owned, served, killed) = (false, 0, Arc::new(Notify::new()));
        Instance { id, level, spare, owned, served, born: now(), forked, output, killed }
    }

    /// Its process on the host.
    pub fn pid(&self) -> i32 {
        self.forked.process.pid()
    }

    /// Whether its process has ended.
    pub fn has_ended(&self) -> bool {
        self.forked.process.has_ended()
    }

    /// Ends it, from wherever this is called.
    pub fn killer(&self) -> Arc<Notify> {
        self.killed.clone()
    }

    /// Waits until a spare is ready, or a growing seed is paused.
    pub async fn ready(&mut self, what: &str, timeout_ms: u64, sink: &mut dyn Sink) -> Result<(), NodeError> {
        let event = self.event(what, timeout_ms, sink).await;
        take(&self.output, sink);
        match event? {
            Event::Ready(_) => Ok(()),
            _ => Err(NodeError::Protocol),
        }
    }

    /// Gives it a request. An error means that it has not got it.
    pub async fn give(&self, command: Vec<u8>, timeout_ms: u64) -> Result<(), NodeError> {
        let request = Request::Serve { command, timeout_ms };
        let sent = self.forked.channel.send(&request, &[]).await;
        sent.map_err(|e| NodeError::of_channel("giving an instance its request", e))
    }

    /// Waits for the answer, and takes what is printed meanwhile.
    pub async fn answer(&mut self, timeout_ms: u64, sink: &mut dyn Sink) -> Result<Answer, NodeError> {
        let event = self.event("the instance", timeout_ms, sink).await;
        take(&self.output, sink);
        let Event::Answer { bytes, phases } = event? else { return Err(NodeError::Protocol) };
        self.served += 1;
        if bytes.len() > MAX_PAYLOAD + 1 {
            return Err(NodeError::AnswerTooLong);
        }
        match Reply::parse(bytes) {
            Reply::Malformed => Err(NodeError::Protocol),
            reply => Ok(Answer { reply, phases }),
        }
    }

    /// What the instance cost, where it was asked to tell.
    pub async fn measures(&mut self, timeout_ms: u64) -> Option<Measures> {
        match self.event("the instance", timeout_ms, &mut Nowhere).await {
            Ok(Event::Measures(measures)) => Some(*measures),
            _ => None,
        }
    }

    /// It has done its work and ends by itself.
    pub fn release(self) {
        self.forked.process.release();
    }

    /// A fork that has become a seed.
    pub fn into_forked(self) -> Forked {
        self.forked
    }

    /// The next event that is not a part of an answer; parts go to the sink.
    async fn event(&mut self, what: &str, timeout_ms: u64, sink: &mut dyn Sink) -> Result<Event, NodeError> {
        let limit = tokio::time::sleep(Duration::from_millis(timeout_ms).saturating_add(GRACE));
        tokio::pin!(limit);
        let mut streamed = 0usize;
        loop {
            let event = tokio::select! {
                biased;
                event = self.next(what, sink) => event?,
                () = &mut limit => {
                    let source = crate::handle::HandleError::Silent(timeout_ms);
                    return Err(NodeError::Sandbox { what: what.to_owned(), source });
                }
            };
            let Event::Part(mut part) = event else { return Ok(event) };
            // A guest may say this unasked.
            let parts = sink.parts().cloned().ok_or(NodeError::Protocol)?;
            // The first byte says what it is. The runtimes send parts of `MAX_PART` at most.
            if part.is_empty() || part.len() > MAX_PART + 1 {
                return Err(NodeError::Protocol);
            }
            part.remove(0);
            streamed = streamed.saturating_add(part.len());
            if streamed > MAX_STREAMED {
                return Err(NodeError::StreamTooLong);
            }
            tokio::select! {
                sent = parts.send(part) => sent.map_err(|_| NodeError::Abandoned)?,
                () = self.killed.notified() => return Err(NodeError::Killed),
                // The caller takes no more: that is time of the function's.
                () = &mut limit => return Err(NodeError::Function(Failure::TimedOut(timeout_ms))),
            }
        }
    }

    async fn next(&mut self, what: &str, sink: &mut dyn Sink) -> Result<Event, NodeError> {
        let next = self.forked.channel.receive::<Event>();
        tokio::pin!(next);
        let mut open = true;
        loop {
            tokio::select! {
                biased;
                event = &mut next => {
                    return match event.map_err(|e| NodeError::of_channel(what, e))?.0 {
                        Event::Failed(failure) => Err(NodeError::of_failure(what, failure)),
                        event => Ok(event),
                    };
                }
                () = self.killed.notified() => return Err(NodeError::Killed),
                ready = self.output.readable(), if open => {
                    open = ready.is_ok() && take(&self.output, sink);
                }
            }
        }
    }
}

/// Reads what is there; whether more may come.
fn take(output: &pipe::Receiver, sink: &mut dyn Sink) -> bool {
    let mut buffer = [0; 16 << 10];
    // A pipe holds 64 KiB: a function that prints without end does not keep the node here.
    for _ in 0..8 {
        match output.try_read(&mut buffer) {
            Ok(0) => return false,
            Ok(n) => sink.printed(&buffer[..n]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return error.kind() == ErrorKind::WouldBlock,
        }
    }
    true
}

/// For what nobody reads.
#[derive(Debug)]
pub struct Nowhere;

impl Sink for Nowhere {
    fn printed(&mut self, _: &[u8]) {}
}

//! What the tree and its sandbox processes say to each other.

use crate::channel::{Channel, ChannelError};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::collections::BTreeMap;
use std::os::fd::{BorrowedFd, OwnedFd};

/// One thing that a forked sandbox does, in order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Step {
    /// Mount the root directory (the next descriptor of the message).
    Root {
        /// What of it the guest may see.
        shown: guest::vfs::Shown,
    },
    /// Start a program that then waits for work.
    Start {
        /// Files to make in the guest first: absolute path and contents.
        files: Vec<(Vec<u8>, Vec<u8>)>,
        /// Serve the AWS Lambda Runtime API to the program, which has no work channel then. Otherwise the step ends when the program waits
        /// for work on its work channel.
        api: bool,
        /// Working directory.
        cwd: Vec<u8>,
        /// Path of the program in the guest.
        path: Vec<u8>,
        /// Its arguments, its name first.
        argv: Vec<Vec<u8>>,
        /// Its environment.
        envp: Vec<Vec<u8>>,
    },
    /// Mount a directory (the next descriptor of the message) in the guest, read-only.
    Mount {
        /// What the guest is told that was mounted.
        source: Vec<u8>,
        /// Where: an absolute path; missing directories are made.
        target: Vec<u8>,
    },
    /// Give the runtime a command and wait for its answer.
    Command(Vec<u8>),
}

/// What a fork is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Role {
    /// Do the steps, then pause and wait for fork requests. Without steps it is the same as the seed that it comes from.
    Seed,
    /// Do the steps, give the last answer, and end.
    Instance,
    /// Be ready, wait for one request, answer, and end.
    Spare,
}

/// Request for a fork; the descriptors of the message are the child's channel and its stderr (which serves as stdout too), then
/// what the steps need.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ForkSpec {
    /// Identity of the child, unique on this node.
    pub id: String,
    /// What for.
    pub role: Role,
    /// Whose it is, for ps(1) and top(1): the level and name of a seed, or the name of a function.
    pub name: String,
    /// What to do first.
    pub steps: Vec<Step>,
    /// Memory limit, bytes; `None` keeps the seed's.
    pub memory: Option<u64>,
    /// vCPUs; `None` keeps the seed's.
    pub cpus: Option<usize>,
    /// Time for all steps together, ms.
    pub timeout_ms: u64,
    /// Record the working set and send it with the measures.
    pub record: bool,
    /// Send [`Event::Measures`] after the answer.
    pub measure: bool,
    /// Of an instance and a spare: do not end after an answer, but wait for the next [`Request::Serve`], until the channel is closed.
    pub keep: bool,
}

/// From the tree to a sandbox.
#[derive(Debug, Serialize, Deserialize)]
pub enum Request {
    /// To a seed: fork.
    Fork(ForkSpec),
    /// To a seed: the working set that its children prefill.
    WorkingSet(vmm::prefill::WorkingSet),
    /// To a spare, and to an instance that is kept: a request.
    Serve {
        /// The runtime command.
        command: Vec<u8>,
        /// Time for it, ms.
        timeout_ms: u64,
    },
}

/// From a sandbox to the tree.
#[derive(Debug, Serialize, Deserialize)]
pub enum Event {
    /// A seed forked a child; its process descriptor comes along.
    Forked {
        /// Host process id of the child.
        pid: i32,
    },
    /// The seed is paused, or the spare is ready.
    Ready(Phases),
    /// The answer of the last command: its status byte and body as the runtime wrote them.
    Answer {
        /// The runtime's bytes.
        bytes: Vec<u8>,
        /// What it took.
        phases: Phases,
    },
    /// A part of an answer that the function makes piece by piece: [`crate::runtime::PART`] and the piece. The answer comes last.
    Part(Vec<u8>),
    /// What an instance cost, sent after its answer.
    Measures(Box<Measures>),
    /// It could not be done.
    Failed(Failure),
}

/// Durations of a fork's phases, ns, and what the request cost.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Phases {
    /// From the request's receipt in the seed to the child's first instruction.
    pub clone: u64,
    /// VM, slots and vCPU.
    pub vm: u64,
    /// Prefill.
    pub prefill: u64,
    /// From there to the answer.
    pub run: u64,
    /// Times that guest code was left for the guest OS, for this request.
    pub exits: u64,
    /// Page faults of the process on the host, those of guest code among them (`ru_minflt` of getrusage(2)): of a fork since its birth, of a
    /// spare and a kept instance since the request came.
    pub faults: u64,
    /// Commands that the runtime has answered, the last of which the answer is to: of a fork that was given steps.
    pub commands: u32,
}

/// What one instance cost.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Measures {
    /// VM exits.
    pub exits: u64,
    /// Page faults that KVM took for the guest (`pf_taken`).
    pub faults: u64,
    /// System calls by number.
    pub syscalls: BTreeMap<u64, u64>,
    /// Memory that only this process holds, KiB (smaps_rollup).
    pub private_kib: u64,
    /// The recorded working set.
    pub working_set: Option<vmm::prefill::WorkingSet>,
}

/// Why a sandbox could not do what it was asked to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Failure {
    /// The time was up.
    #[error("timed out after {0} ms")]
    TimedOut(u64),
    /// The first process exited with this code before it answered.
    #[error("the process exited with status {0} before it answered")]
    Exited(u8),
    /// The first process was killed by this signal.
    #[error("the process was killed by signal {0} before it answered")]
    Killed(u8),
    /// The memory limit was reached.
    #[error("the memory limit of {0} MiB was exceeded")]
    OutOfMemory(u64),
    /// Every thread sleeps for ever.
    #[error("every thread of the function sleeps for ever")]
    Stuck,
    /// The program could not be started.
    #[error("cannot start {path}: {reason}")]
    Start {
        /// Which.
        path: String,
        /// Why.
        reason: String,
    },
    /// The host or the machine failed.
    #[error("{0}")]
    Machine(String),
}

impl Failure {
    /// A stable name for programs, in the style of AWS Lambda's error types.
    pub fn error_type(&self) -> &'static str {
        match self {
            Failure::TimedOut(_) | Failure::Stuck => "Sandbox.Timedout",
            Failure::Exited(_) | Failure::Killed(_) => "Runtime.ExitError",
            Failure::OutOfMemory(_) => "Runtime.OutOfMemory",
            Failure::Start { .. } => "Runtime.InvalidEntrypoint",
            Failure::Machine(_) => "Sandbox.Failure",
        }
    }
}

/// Sends a message.
pub fn send<T: Serialize>(
    channel: &Channel,
    message: &T,
    fds: &[BorrowedFd<'_>],
) -> Result<(), ChannelError> {
    let bytes = postcard::to_allocvec(message).map_err(|_| ChannelError::Malformed)?;
    channel.send(&bytes, fds)
}

/// Receives a message.
pub fn receive<T: DeserializeOwned>(channel: &Channel) -> Result<(T, Vec<OwnedFd>), ChannelError> {
    let (bytes, fds) = channel.receive()?;
    let message = postcard::from_bytes(&bytes).map_err(|_| ChannelError::Malformed)?;
    Ok((message, fds))
}

//! The sandbox process: a seed that waits for fork requests, an instance that answers one request, a spare.
//!
//! One process plays these roles one after another: the first boots the guest OS and is the OS seed; a fork's child does its steps and
//! becomes what its [`ForkSpec`] says. A seed is single-threaded while it waits.

use crate::channel::{Channel, ChannelError};
use crate::proto::{Event, Failure, ForkSpec, Measures, Phases, Request, Role, Step, receive, send};
use crate::runtime::{MAX_PAYLOAD, PART};
use guest::errno::Errno;
use guest::exec::Spawn;
use guest::fork::ForkArgs;
use guest::task::ExitStatus;
use guest::vfs::Stdio;
use std::collections::VecDeque;
use std::os::fd::{AsFd, OwnedFd};
use vmm::fork::{ForkOptions, Forked};
use vmm::prefill::WorkingSet;
use vmm::sandbox::{RunOptions, Sandbox, Stop};

/// The argument by which a binary of ours is told to be a sandbox process; its channel is then its standard input.
pub const ROLE_ARGUMENT: &str = "__sandbox";

/// First word of the command line of a sandbox process.
pub const COMMAND: &str = "coppice-sandbox";
/// Room for a command line with a function's name in it, bytes: a process keeps the room that its arguments had at first.
pub(crate) const COMMAND_BYTES: usize = 120;

/// Runs the sandbox role if this process was started for it, and never returns then. Call it first in `main`.
pub fn run_if_asked() {
    if std::env::args_os().nth(1).is_some_and(|a| a == ROLE_ARGUMENT) {
        let code = match rustix::io::fcntl_dupfd_cloexec(std::io::stdin().as_fd(), 3) {
            Ok(fd) => main(Channel::from_fd(fd)),
            Err(_) => 2,
        };
        std::process::exit(code);
    }
}

/// Life of a sandbox process from its boot on; returns its exit status.
fn main(channel: Channel) -> i32 {
    entitle(Role::Seed, "L0 os");
    // Die with the process that owns the tree, even if it is killed.
    let _ = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL));
    if let Ok(null) = std::fs::File::open("/dev/null") {
        let _ = rustix::stdio::dup2_stdin(&null);
    }
    let config = vmm::sandbox::Config { max_vcpus: host_cpus(), ..Default::default() };
    match Sandbox::boot(config, guest::kernel::Limits::default()) {
        Ok(sandbox) => {
            let mut process = Process { sandbox, channel, working_set: None, paused_at: 0 };
            process.live()
        }
        Err(error) => {
            let _ = send(&channel, &Event::Failed(Failure::Machine(chain(&error))), &[]);
            1
        }
    }
}

/// Shows in ps(1) and top(1) what this process is: `coppice-sandbox: seed L2 hello`, and in few bytes `L2 hello`.
fn entitle(role: Role, name: &str) {
    let what = if role == Role::Seed { "seed" } else { "instance" };
    vmm::title::set(&format!("{COMMAND}: {what} {name}"), name);
}

/// An error with all of its causes in one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

struct Process {
    sandbox: Sandbox,
    channel: Channel,
    working_set: Option<WorkingSet>,
    paused_at: u64,
}

/// How a role ends.
enum End {
    /// The process exits with this status.
    Exit(i32),
    /// It is (again) a seed that waits.
    Wait,
}

impl Process {
    fn live(&mut self) -> i32 {
        let mut phases = Phases::default();
        loop {
            let next = match self.wait_as_seed(phases) {
                Ok(Some((spec, fds, received))) => self.play(spec, fds, received),
                Ok(None) | Err(_) => End::Exit(0),
            };
            match next {
                End::Exit(code) => return code,
                End::Wait => phases = Phases::default(),
            }
        }
    }

    /// Pauses and serves fork requests. Returns in a child, with what it is to be; `None` when the tree has closed the channel.
    fn wait_as_seed(
        &mut self,
        phases: Phases,
    ) -> Result<Option<(ForkSpec, VecDeque<OwnedFd>, u64)>, ChannelError> {
        if let Err(error) = self.sandbox.pause() {
            let _ = send(&self.channel, &Event::Failed(Failure::Machine(chain(&error))), &[]);
            return Ok(None);
        }
        self.paused_at = now();
        send(&self.channel, &Event::Ready(phases), &[])?;
        loop {
            let (request, fds) = match receive::<Request>(&self.channel) {
                Err(ChannelError::Closed) => return Ok(None),
                other => other?,
            };
            let received = now();
            match request {
                Request::WorkingSet(set) => self.working_set = Some(set),
                Request::Serve { .. } => {}
                Request::Fork(spec) => {
                    let mut entropy = [0; 32];
                    fill_random(&mut entropy);
                    let args = ForkArgs {
                        sandbox_id: spec.id.clone(),
                        hostname: String::new(),
                        entropy,
                        paused_at: self.paused_at,
                        now: now(),
                        memory_limit: spec.memory,
                        cpus: spec.cpus,
                    };
                    match self.sandbox.fork(args, ForkOptions { parent_reaps: true }) {
                        Ok(Forked::Child) => return Ok(Some((spec, fds.into(), received))),
                        Ok(Forked::Parent { pid, pidfd, .. }) => {
                            send(&self.channel, &Event::Forked { pid }, &[pidfd.as_fd()])?;
                        }
                        Err(error) => {
                            let failure = Event::Failed(Failure::Machine(chain(&error)));
                            send(&self.channel, &failure, &[])?;
                        }
                    }
                }
            }
        }
    }

    /// The child's life after a fork.
    fn play(&mut self, spec: ForkSpec, mut fds: VecDeque<OwnedFd>, received: u64) -> End {
        let born = now();
        let (Some(channel), Some(stderr)) = (fds.pop_front(), fds.pop_front()) else { return End::Exit(2) };
        self.channel = Channel::from_fd(channel);
        entitle(spec.role, &spec.name);
        let mut phases = Phases { clone: born.saturating_sub(received), ..Phases::default() };
        self.redirect(&stderr);
        let outcome = match spec.role {
            // As it is: a second seed of the same.
            Role::Seed if spec.steps.is_empty() => Ok(None),
            Role::Spare => self.serve_as_spare(&spec, &mut phases),
            Role::Seed | Role::Instance => self.steps(&spec, fds, &stderr, &mut phases),
        };
        match outcome {
            Ok(answer) => {
                if spec.role == Role::Seed {
                    if let Some(bytes) = answer {
                        let _ = send(&self.channel, &Event::Answer { bytes, phases }, &[]);
                    }
                    if !spec.steps.is_empty() {
                        self.working_set = None;
                    }
                    return End::Wait;
                }
                let bytes = answer.unwrap_or_default();
                if spec.role == Role::Instance {
                    (phases.exits, phases.faults) = self.taken();
                }
                let _ = send(&self.channel, &Event::Answer { bytes, phases }, &[]);
                if spec.keep {
                    return self.serve_on(&spec);
                }
            }
            Err(failure) => {
                let _ = send(&self.channel, &Event::Failed(failure), &[]);
            }
        }
        if spec.measure || spec.record {
            let measures = self.measures(&spec);
            let _ = send(&self.channel, &Event::Measures(Box::new(measures)), &[]);
        }
        // Early destroy: no interpreter shutdown, no destructors of ours.
        End::Exit(0)
    }

    fn redirect(&mut self, stderr: &OwnedFd) {
        let copy = || stderr.try_clone().ok();
        let stdio = Stdio { stdin: None, stdout: copy(), stderr: copy(), work: false };
        self.sandbox.kernel().reissue_stdio(stdio);
    }

    fn steps(
        &mut self,
        spec: &ForkSpec,
        mut fds: VecDeque<OwnedFd>,
        stderr: &OwnedFd,
        phases: &mut Phases,
    ) -> Result<Option<Vec<u8>>, Failure> {
        let deadline = now().saturating_add(spec.timeout_ms.saturating_mul(1_000_000));
        let mut answer = None;
        self.prepare(spec, phases)?;
        let start = now();
        for step in &spec.steps {
            match step {
                Step::Root { shown } => {
                    let root = fds
                        .pop_front()
                        .ok_or_else(|| Failure::Machine("no root directory was sent".into()))?;
                    let mut kernel = self.sandbox.kernel();
                    kernel.show_only(shown.clone());
                    let mounted = kernel.mount_root(root);
                    mounted.map_err(|e| Failure::Start {
                        path: "the root directory".into(),
                        reason: e.to_string(),
                    })?;
                }
                Step::Start { files, api, cwd, path, argv, envp } => {
                    let failed = |what: &[u8], reason: &dyn std::fmt::Display| Failure::Start {
                        path: String::from_utf8_lossy(what).into_owned(),
                        reason: reason.to_string(),
                    };
                    let stdio = Stdio {
                        stdin: None,
                        stdout: stderr.try_clone().ok(),
                        stderr: stderr.try_clone().ok(),
                        work: !api,
                    };
                    let mut kernel = self.sandbox.kernel();
                    for (file, data) in files {
                        kernel.provide_file(file, data, 0o644).map_err(|e| failed(file, &e))?;
                    }
                    if *api {
                        kernel.lambda_serve().map_err(|e| failed(b"the Lambda Runtime API", &e))?;
                    }
                    let spawn = Spawn {
                        path: path.clone(),
                        argv: argv.clone(),
                        envp: envp.clone(),
                        cwd: cwd.clone(),
                    };
                    kernel.spawn_init(&spawn, stdio).map_err(|e| match e {
                        Errno::EACCES => failed(path, &"it may not be executed (EACCES): chmod +x helps"),
                        e => failed(path, &e),
                    })?;
                    drop(kernel);
                    if !api {
                        self.until_quiescent(deadline, spec)?;
                    }
                }
                Step::Mount { source, target } => {
                    let dir = fds
                        .pop_front()
                        .ok_or_else(|| Failure::Machine("no directory to mount was sent".into()))?;
                    let mut kernel = self.sandbox.kernel();
                    let mounted = kernel
                        .mount_point(target)
                        .and_then(|at| kernel.mount_host(at, source, guest::vfs::mount::RDONLY, dir));
                    mounted.map_err(|e| Failure::Start {
                        path: String::from_utf8_lossy(target).into_owned(),
                        reason: format!("it cannot be mounted on: {e}"),
                    })?;
                }
                Step::Command(command) => {
                    self.sandbox.kernel().push_work(command);
                    answer = Some(self.until_answer(deadline, spec)?);
                    phases.commands += 1;
                    if answer.as_ref().is_some_and(|a| a.first() == Some(&b'E')) {
                        // No seed: its process may end now, as a provided program does that cannot start.
                        break;
                    }
                    if spec.role == Role::Seed {
                        self.until_quiescent(deadline, spec)?;
                    }
                }
            }
        }
        phases.run = now().saturating_sub(start);
        Ok(answer)
    }

    /// VM and prefill, timed apart from what runs on them.
    fn prepare(&mut self, spec: &ForkSpec, phases: &mut Phases) -> Result<(), Failure> {
        let machine = |e: &dyn std::error::Error| Failure::Machine(chain(e));
        if spec.record {
            self.sandbox.begin_recording().map_err(|e| machine(&e))?;
        }
        let t0 = now();
        self.sandbox.resume().map_err(|e| machine(&e))?;
        let t1 = now();
        if let (Some(set), false) = (&self.working_set, spec.record) {
            self.sandbox.prefill(set).map_err(|e| machine(&e))?;
        }
        phases.vm = t1 - t0;
        phases.prefill = now() - t1;
        Ok(())
    }

    fn serve_as_spare(&mut self, spec: &ForkSpec, phases: &mut Phases) -> Result<Option<Vec<u8>>, Failure> {
        self.prepare(spec, phases)?;
        if let Some(set) = self.working_set.clone() {
            let t = now();
            self.sandbox.touch(&set).map_err(|e| Failure::Machine(chain(&e)))?;
            phases.prefill += now() - t;
        }
        // The spare has waited: what it knew of time and chance is stale, as at a fork.
        send(&self.channel, &Event::Ready(phases.clone()), &[])
            .map_err(|e| Failure::Machine(e.to_string()))?;
        let (request, _) = receive::<Request>(&self.channel).map_err(|e| Failure::Machine(e.to_string()))?;
        self.serve(request, spec, phases).map(Some)
    }

    /// Serves one request that came after the fork.
    fn serve(&mut self, request: Request, spec: &ForkSpec, phases: &mut Phases) -> Result<Vec<u8>, Failure> {
        let Request::Serve { command, timeout_ms } = request else {
            return Err(Failure::Machine("an instance was asked for something else than to serve".into()));
        };
        let start = now();
        let (exits, faults) = self.taken();
        let deadline = start.saturating_add(timeout_ms.saturating_mul(1_000_000));
        let spec = ForkSpec { timeout_ms, ..spec.clone() };
        let mut kernel = self.sandbox.kernel();
        // Taken for the answer to this request, it would be another's.
        if kernel.take_answer().is_some() {
            return Err(Failure::Machine("the runtime answered its last request twice".into()));
        }
        kernel.push_work(&command);
        drop(kernel);
        let answer = self.until_answer(deadline, &spec)?;
        phases.run = now() - start;
        let after = self.taken();
        (phases.exits, phases.faults) = (after.0.saturating_sub(exits), after.1.saturating_sub(faults));
        Ok(answer)
    }

    /// Exits and faults since the fork.
    fn taken(&self) -> (u64, u64) {
        (self.sandbox.kernel().counters.exits, vmm::stats::minor_faults())
    }

    /// Serves request after request, until the owner closes the channel or one fails.
    fn serve_on(&mut self, spec: &ForkSpec) -> End {
        while let Ok((request, _)) = receive::<Request>(&self.channel) {
            let mut phases = Phases::default();
            let (event, last) = match self.serve(request, spec, &mut phases) {
                Ok(bytes) => (Event::Answer { bytes, phases }, false),
                Err(failure) => (Event::Failed(failure), true),
            };
            if send(&self.channel, &event, &[]).is_err() || last {
                break;
            }
        }
        End::Exit(0)
    }

    fn until_answer(&mut self, deadline: u64, spec: &ForkSpec) -> Result<Vec<u8>, Failure> {
        loop {
            match self.run(deadline, false)? {
                Stop::Answer(mut bytes) => {
                    // So long is told to be too long; all of it might not even fit the channel.
                    bytes.truncate(MAX_PAYLOAD + 2);
                    if bytes.first() != Some(&PART) {
                        return Ok(bytes);
                    }
                    // Whoever is slow to take it makes the function wait.
                    send(&self.channel, &Event::Part(bytes), &[])
                        .map_err(|e| Failure::Machine(e.to_string()))?;
                }
                other => return Err(self.failure(other, spec)),
            }
        }
    }

    fn until_quiescent(&mut self, deadline: u64, spec: &ForkSpec) -> Result<(), Failure> {
        match self.run(deadline, true)? {
            Stop::Quiescent => Ok(()),
            other => Err(self.failure(other, spec)),
        }
    }

    fn run(&mut self, deadline: u64, stop_when_quiescent: bool) -> Result<Stop, Failure> {
        let options = RunOptions { deadline: Some(deadline), control: None, stop_when_quiescent };
        self.sandbox.run(&options).map_err(|e| Failure::Machine(chain(&e)))
    }

    fn failure(&mut self, stop: Stop, spec: &ForkSpec) -> Failure {
        let kernel = self.sandbox.kernel();
        if kernel.counters.oom_kills > 0 {
            return Failure::OutOfMemory(kernel.limits.memory >> 20);
        }
        match stop {
            Stop::Exited(ExitStatus::Code(code)) => Failure::Exited(code),
            Stop::Exited(ExitStatus::Signal(signal)) => Failure::Killed(signal),
            Stop::TimedOut => Failure::TimedOut(spec.timeout_ms),
            Stop::Stuck | Stop::Quiescent => Failure::Stuck,
            Stop::Answer(_) | Stop::Control => Failure::Machine("the runtime spoke out of turn".into()),
        }
    }

    fn measures(&mut self, spec: &ForkSpec) -> Measures {
        let private = crate::memory::usage(rustix::process::getpid().as_raw_nonzero().get());
        let stats = self.sandbox.stats().unwrap_or_default();
        let syscalls = self.sandbox.kernel().counters.syscalls.clone();
        Measures {
            exits: stats.exits(),
            faults: stats.pf_taken(),
            syscalls,
            private_kib: private.map_or(0, |u| u.private_kib),
            working_set: if spec.record { self.sandbox.end_recording().ok() } else { None },
        }
    }
}

/// `CLOCK_MONOTONIC`, ns.
pub fn now() -> u64 {
    let t = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    u64::try_from(t.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(t.tv_nsec).unwrap_or(0)
}

/// Processors that this process may use.
pub fn host_cpus() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn fill_random(buf: &mut [u8]) {
    let mut done = 0;
    while done < buf.len() {
        match rustix::rand::getrandom(&mut buf[done..], rustix::rand::GetRandomFlags::empty()) {
            Ok(n) => done += n,
            Err(rustix::io::Errno::INTR) => {}
            // Without entropy there is no safe way to go on.
            Err(_) => std::process::exit(2),
        }
    }
}

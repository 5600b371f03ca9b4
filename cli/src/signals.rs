//! Signals that the operator sends: passed on to the guest by `run`, and the clean-up on Ctrl-C elsewhere.

use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Signals that `run` passes on to the guest's first process.
const PASSED_ON: &[i32] = &[
    signal_hook::consts::SIGINT,
    signal_hook::consts::SIGTERM,
    signal_hook::consts::SIGHUP,
    signal_hook::consts::SIGQUIT,
    signal_hook::consts::SIGUSR1,
    signal_hook::consts::SIGUSR2,
    signal_hook::consts::SIGWINCH,
    signal_hook::consts::SIGCONT,
];

/// Collects signals until they are asked for.
pub struct Inbox {
    stream: UnixStream,
    flags: Vec<(i32, Arc<AtomicBool>)>,
}

impl Inbox {
    /// Starts collecting.
    pub fn new() -> std::io::Result<Inbox> {
        let (stream, write) = UnixStream::pair()?;
        stream.set_nonblocking(true)?;
        let mut flags = Vec::new();
        for &signal in PASSED_ON {
            let flag = Arc::new(AtomicBool::new(false));
            // Order matters: the flag is up before the descriptor becomes readable.
            signal_hook::flag::register(signal, flag.clone())?;
            signal_hook::low_level::pipe::register(signal, write.try_clone()?)?;
            flags.push((signal, flag));
        }
        Ok(Inbox { stream, flags })
    }

    /// Readable when a signal has come.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }

    /// The signals that came since the last call.
    pub fn take(&mut self) -> Vec<i32> {
        let mut bytes = [0; 64];
        while matches!(self.stream.read(&mut bytes), Ok(n) if n > 0) {}
        self.flags.iter().filter(|(_, f)| f.swap(false, Ordering::SeqCst)).map(|(s, _)| *s).collect()
    }
}

/// On SIGINT, SIGTERM or SIGHUP: removes the directory, kills the process group of the peer that runs now, and exits with 128 + signal.
/// The sandboxes die with this process.
pub fn clean_up_on_signal(
    dir: std::path::PathBuf,
    peer: Arc<std::sync::atomic::AtomicI32>,
) -> std::io::Result<()> {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
    let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM, SIGHUP])?;
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        if let Some(signal) = signals.forever().next() {
            if let Some(pid) = rustix::process::Pid::from_raw(peer.load(Ordering::SeqCst)) {
                let _ = rustix::process::kill_process_group(pid, rustix::process::Signal::KILL);
            }
            let _ = std::fs::remove_dir_all(&dir);
            std::process::exit(128 + signal);
        }
    })?;
    Ok(())
}

//! Signals that the operator sends: passed on to the guest by `run`, and the clean-up on Ctrl-C elsewhere.

use anyhow::Context;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

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

/// A new directory that goes away however the process ends: when this is dropped, or on SIGINT, SIGTERM and SIGHUP, which also kill the
/// process group of the peer that runs now and then end this process with 128 + signal. (Its sandboxes die with it.)
pub struct Scratch {
    /// Where it is.
    pub path: PathBuf,
    /// Process group of the peer that runs now; 0 for none.
    pub peer: Arc<AtomicI32>,
}

impl Scratch {
    /// Makes the directory, after the clean-up is in place.
    pub fn new(prefix: &str) -> anyhow::Result<Scratch> {
        use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
        let peer = Arc::new(AtomicI32::new(0));
        let place = Arc::new(Mutex::new(None::<PathBuf>));
        let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM, SIGHUP])?;
        let (group, guarded) = (peer.clone(), place.clone());
        std::thread::Builder::new().name("signals".into()).spawn(move || {
            if let Some(signal) = signals.forever().next() {
                // Held until the end, so that no directory is made after the look.
                let place = guarded.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(pid) = rustix::process::Pid::from_raw(group.load(Ordering::SeqCst)) {
                    let _ = rustix::process::kill_process_group(pid, rustix::process::Signal::KILL);
                }
                if let Some(dir) = &*place {
                    let _ = std::fs::remove_dir_all(dir);
                }
                std::process::exit(128 + signal);
            }
        })?;
        let mut place = place.lock().unwrap_or_else(PoisonError::into_inner);
        let path = tempfile::Builder::new()
            .prefix(prefix)
            .tempdir()
            .context("cannot make a temporary directory (set TMPDIR to one that is writable)")?
            .keep();
        *place = Some(path.clone());
        Ok(Scratch { path, peer })
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

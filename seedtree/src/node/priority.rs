//! Processor priority of seeds that grow: lower than that of requests, and raised back before the first fork, since children inherit it.

use rustix::process::{Pid, getpriority_process, setpriority_process};
use std::collections::BTreeSet;

/// How much nicer a growing seed is: it gets a tenth of what a request gets beside it (sched(7)).
const NICER: i32 = 10;
/// The nicest there is.
const NICEST: i32 = 19;

/// What this process may do about priorities.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Priority {
    normal: i32,
}

impl Priority {
    /// `None` where a priority that was lowered may not be raised back. Tried on a thread that ends at once.
    pub(crate) fn find() -> Option<Priority> {
        let try_it = || {
            let normal = getpriority_process(None)?;
            let me = Some(rustix::thread::gettid());
            setpriority_process(me, (normal + 1).min(NICEST))?;
            setpriority_process(me, normal)?;
            Ok::<_, rustix::io::Errno>(Priority { normal })
        };
        std::thread::scope(|scope| scope.spawn(try_it).join()).ok()?.ok()
    }

    /// Lowers that of a process.
    pub(crate) fn lower(self, pid: i32) {
        // One that cannot be lowered grows as fast as requests run.
        let _ = set(pid, (self.normal + NICER).min(NICEST));
    }

    /// Raises it back.
    pub(crate) fn raise(self, pid: i32) -> std::io::Result<()> {
        set(pid, self.normal)
    }
}

/// Sets that of all threads; a new one has its creator's.
fn set(pid: i32, nice: i32) -> std::io::Result<()> {
    let mut done = BTreeSet::new();
    loop {
        let mut more = false;
        for entry in std::fs::read_dir(format!("/proc/{pid}/task"))?.flatten() {
            let Some(tid) = entry.file_name().to_str().and_then(|n| n.parse().ok()) else { continue };
            if done.insert(tid) {
                more = true;
                match setpriority_process(Pid::from_raw(tid), nice) {
                    Ok(()) | Err(rustix::io::Errno::SRCH) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
        if !more {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lowered_process_is_raised_back() {
        // Where this may not be done there is nothing to test but that.
        let Some(priority) = Priority::find() else { return };
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let nice = || getpriority_process(Pid::from_raw(pid)).unwrap();
        let before = nice();
        priority.lower(pid);
        assert_eq!(nice(), (before + NICER).min(NICEST));
        priority.raise(pid).unwrap();
        assert_eq!(nice(), before);
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(priority.raise(pid).is_err(), "a process that is gone");
    }
}

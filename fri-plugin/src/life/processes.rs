//! Processes of a daemon's previous life: known by a variable in their environment, and ended.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

/// A process that carries the mark, held so that its id cannot become another's unnoticed.
#[derive(Debug)]
pub struct Marked {
    /// Its id.
    pub pid: i32,
    pidfd: OwnedFd,
}

/// When a process began, in ticks since the host's start; `None` where it is gone.
pub fn start_time(pid: i32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field, in parentheses, may have anything in it (proc_pid_stat(5)); the start is the 22nd.
    stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(19)?.parse().ok()
}

/// Processes other than this one whose environment has `variable`, such as `NAME=value`.
pub fn marked(variable: &str) -> Vec<Marked> {
    let own = std::process::id();
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|e| e.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| u32::try_from(*pid) != Ok(own)).filter_map(|pid| hold(pid, variable)).collect()
}

fn hold(pid: i32, variable: &str) -> Option<Marked> {
    let carries = |pid: i32| {
        let environ = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environ.split(|b| *b == 0).any(|v| v == variable.as_bytes())
    };
    if !carries(pid) {
        return None;
    }
    let pidfd = pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok()?;
    // Looked at again while the process is held: as long as it has not ended, what /proc says of the id is of this process.
    let marked = Marked { pid, pidfd };
    (carries(pid) && !marked.has_ended(Duration::ZERO)).then_some(marked)
}

impl Marked {
    /// Ends it; whether it has ended within the time.
    pub fn end(&self, within: Duration) -> bool {
        let _ = pidfd_send_signal(&self.pidfd, Signal::KILL);
        self.has_ended(within)
    }

    /// Whether it ends within the time. Its parent may still have to reap it.
    fn has_ended(&self, within: Duration) -> bool {
        let deadline = Instant::now() + within;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let time = Timespec {
                tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: i64::from(left.subsec_nanos()),
            };
            match poll(&mut [PollFd::new(&self.pidfd, PollFlags::IN)], Some(&time)) {
                Ok(0) => return false,
                Err(rustix::io::Errno::INTR) => {}
                Ok(_) => return true,
                Err(_) => return false,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Child, Command};

    fn sleeper(name: &str, value: &str) -> Child {
        Command::new("sleep").arg("1000").env(name, value).spawn().unwrap()
    }

    #[test]
    fn only_processes_with_the_whole_mark_are_found_and_ended() {
        let id = format!("test-{}", std::process::id());
        let mut ours = sleeper("COPPICE_TEST_LIFE", &id);
        let mut longer = sleeper("COPPICE_TEST_LIFE", &format!("{id}0"));
        let mut other = sleeper("COPPICE_TEST_LIFE_", &id);
        let variable = format!("COPPICE_TEST_LIFE={id}");
        // Until the new process has its own environment, it has this one's.
        let found = loop {
            let found = marked(&variable);
            if !found.is_empty() {
                break found;
            }
        };
        let pids: Vec<i32> = found.iter().map(|m| m.pid).collect();
        assert_eq!(pids, [i32::try_from(ours.id()).unwrap()]);
        assert!(found.iter().all(|m| m.end(Duration::from_secs(10))));
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&ours.wait().unwrap()), Some(9));
        assert!(marked(&variable).is_empty());
        for child in [&mut longer, &mut other] {
            assert!(child.try_wait().unwrap().is_none());
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    #[test]
    fn a_process_that_has_ended_is_not_taken_for_another() {
        let mut child = sleeper("COPPICE_TEST_LIFE", "ending");
        let pid = i32::try_from(child.id()).unwrap();
        let find = || hold(pid, "COPPICE_TEST_LIFE=ending");
        while find().is_none() {}
        assert!(start_time(pid).unwrap() > 0);
        child.kill().unwrap();
        // Not reaped, it is still in /proc.
        while find().is_some() {}
        assert!(start_time(pid).is_some());
        child.wait().unwrap();
        assert_eq!(start_time(pid), None);
    }
}

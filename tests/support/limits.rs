//! Shortages that a test makes and takes back: no more processes, no more room on a file system.

use super::daemon::Coppiced;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A control group with a limit on processes, of cgroup v2 or v1. Removed when dropped.
pub struct Pids {
    dir: PathBuf,
}

impl Pids {
    /// Makes one for a daemon and its sandboxes; what they start later is in it too. `None`, with a word on stderr, where this user cannot
    /// make one.
    pub fn around(daemon: &Coppiced) -> Option<Pids> {
        let candidates = ["/sys/fs/cgroup", "/sys/fs/cgroup/pids"];
        let has = |root: &str| {
            let listed =
                std::fs::read_to_string(format!("{root}/cgroup.subtree_control")).unwrap_or_default();
            listed.split_whitespace().any(|c| c == "pids") || root.ends_with("/pids")
        };
        let root = candidates.into_iter().find(|r| Path::new(r).join("cgroup.procs").exists() && has(r));
        let dir = Path::new(root.unwrap_or(candidates[0])).join(format!("coppice-pids-{}", daemon.pid()));
        if let Err(error) = std::fs::create_dir(&dir) {
            eprintln!(
                "NOT TESTED: no more processes (cannot make the control group {}: {error})",
                dir.display()
            );
            return None;
        }
        let pids = Pids { dir };
        // A seed's children are where the seed is. One that was forked meanwhile is found when its seed is in.
        for _ in 0..3 {
            for pid in std::iter::once(daemon.pid()).chain(daemon.sandboxes()) {
                let joined = std::fs::write(pids.dir.join("cgroup.procs"), pid.to_string());
                // An instance may have ended.
                assert!(joined.is_ok() || pid != daemon.pid(), "{joined:?} in {}", pids.dir.display());
            }
        }
        Some(pids)
    }

    fn write(&self, file: &str, value: &str) {
        std::fs::write(self.dir.join(file), value)
            .unwrap_or_else(|e| panic!("{file} in {}: {e}", self.dir.display()));
    }

    /// Processes and threads that there are.
    fn current(&self) -> u64 {
        let text = std::fs::read_to_string(self.dir.join("pids.current")).unwrap_or_default();
        text.trim().parse().unwrap_or_else(|e| panic!("pids.current in {}: {e}", self.dir.display()))
    }

    /// Allows as many threads as there are, and no more.
    pub fn exhaust(&self) {
        self.allow(0);
    }

    /// Allows as many threads as there are, and so many more.
    pub fn allow(&self, more: u64) {
        self.write("pids.max", &(self.current() + more).to_string());
    }

    /// Waits until none has come or gone for a while.
    pub fn settle(&self) {
        let start = std::time::Instant::now();
        let (mut last, mut since) = (self.current(), start);
        while since.elapsed() < Duration::from_millis(300) && start.elapsed() < Duration::from_secs(10) {
            std::thread::sleep(Duration::from_millis(10));
            let now = self.current();
            if now != last {
                (last, since) = (now, std::time::Instant::now());
            }
        }
    }

    /// Allows any number.
    pub fn release(&self) {
        self.write("pids.max", "max");
    }
}

impl Drop for Pids {
    fn drop(&mut self) {
        let _ = std::fs::write(self.dir.join("pids.max"), "max");
        // It can be removed once what was in it has ended.
        let gone = super::left::eventually(|| std::fs::remove_dir(&self.dir).is_ok());
        if !gone && !std::thread::panicking() {
            panic!("processes stay in {}", self.dir.display());
        }
    }
}

/// A file that takes all room of its file system. Removed when dropped.
pub struct Full {
    path: PathBuf,
}

impl Full {
    /// Fills the file system of a directory. Only for one that the test mounted itself.
    pub fn of(dir: &Path) -> Full {
        let path = dir.join("filler");
        let mut file = File::create(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let mut size = 1 << 20;
        while size > 0 {
            if file.write_all(&vec![0; size]).is_err() {
                size /= 2;
            }
        }
        Full { path }
    }
}

impl Drop for Full {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

//! At the start: what a previous life of this daemon left is found and removed, each thing reported in the log.

use super::host::{remove_cgroup, remove_mount, remove_namespace};
use super::{Life, MARK, processes, socket};
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Time for a process to end once it was killed.
const ENDING: Duration = Duration::from_secs(10);
/// Directory of the state directory for uploads, which are of no use to another life.
const UPLOADS: &str = "uploads";

/// A kind of thing that may be left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum What {
    /// A sandbox process.
    Process,
    /// Something mounted.
    Mount,
    /// A network namespace.
    Namespace,
    /// A network device.
    Device,
    /// A control group.
    Cgroup,
    /// A socket that nobody listens on.
    Socket,
    /// A half-written file, or an upload.
    File,
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            What::Process => "process",
            What::Mount => "mount",
            What::Namespace => "network namespace",
            What::Device => "network device",
            What::Cgroup => "control group",
            What::Socket => "socket",
            What::File => "file",
        })
    }
}

/// Something that a previous life left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// What it is.
    pub what: What,
    /// Its name, path or process id.
    pub name: String,
    /// Why it is still there; `None` where it is gone.
    pub left: Option<String>,
}

impl Life {
    /// Removes what a previous life left: processes first, because they hold the rest. Half-made code is [`crate::code::CodeStore::collect`]'s.
    /// Blocks, for seconds where a process takes long to end.
    pub fn reconcile(&self) -> Vec<Found> {
        let names = self.names();
        let mut found = Vec::new();
        let mut note = |what, name: String, removed: Result<(), String>| {
            match &removed {
                Ok(()) => tracing::info!(%what, name, "left by a previous life, and removed"),
                Err(reason) => {
                    tracing::warn!(%what, name, reason, "left by a previous life, and still there")
                }
            }
            found.push(Found { what, name, left: removed.err() });
        };
        let marked = processes::marked(&format!("{MARK}={}", self.id()));
        for process in marked {
            let ended = process.end(ENDING);
            let outcome = if ended { Ok(()) } else { Err("it does not end".to_owned()) };
            note(What::Process, process.pid.to_string(), outcome);
        }
        let done = |result: std::io::Result<()>| result.map_err(|e| e.to_string());
        for path in names.mounts(&std::fs::read("/proc/self/mountinfo").unwrap_or_default()) {
            note(What::Mount, show(&path), done(remove_mount(&path)));
        }
        for path in names.namespaces(Path::new("/run/netns")) {
            note(What::Namespace, show(&path), done(remove_namespace(&path)));
        }
        for device in names.devices(Path::new("/sys/class/net")) {
            // With its namespace goes the other end of a pair, and this one with it, a moment later.
            let advice = format!("remove it with `ip link delete {device}`");
            let outcome = if gone(&Path::new("/sys/class/net").join(&device)) { Ok(()) } else { Err(advice) };
            note(What::Device, device, outcome);
        }
        for path in names.cgroups(Path::new("/sys/fs/cgroup")) {
            note(What::Cgroup, show(&path), done(remove_cgroup(&path)));
        }
        for path in entries(self.run()) {
            if socket::remove_stale(&path) {
                note(What::Socket, show(&path), Ok(()));
            }
        }
        // Only what has our names: the state directory may have been an operator's own before.
        let is_upload = |path: &PathBuf| {
            let name = path.file_name().unwrap_or_default();
            name.as_encoded_bytes().starts_with(crate::fri::UPLOAD.as_bytes())
        };
        for path in entries(&self.state().join(UPLOADS)).into_iter().filter(is_upload) {
            let is_dir = path.symlink_metadata().is_ok_and(|m| m.is_dir());
            let removed = if is_dir { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
            note(What::File, show(&path), done(removed));
        }
        found
    }
}

/// Whether it goes within a second.
fn gone(path: &Path) -> bool {
    for _ in 0..20 {
        if !path.exists() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    false
}

fn show(path: &Path) -> String {
    path.display().to_string()
}

fn entries(dir: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(dir).into_iter().flatten().flatten().map(|e| e.path()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;
    use std::process::Command;

    #[test]
    fn what_a_previous_life_left_is_removed_and_reported() {
        let dir = tempfile::tempdir().unwrap();
        let (state, run) = (dir.path().join("state"), dir.path().join("run"));
        let life = Life::begin(&state, &run).unwrap();
        assert_eq!(life.reconcile(), []);
        let mark = life.mark();
        let mut left = Command::new("sleep").arg("1000").envs(mark).spawn().unwrap();
        let mut others = Command::new("sleep").arg("1000").env(MARK, "0").spawn().unwrap();
        drop(UnixListener::bind(run.join("fri.sock")).unwrap());
        let _listened = UnixListener::bind(run.join("other.sock")).unwrap();
        std::fs::write(run.join("file"), "").unwrap();
        std::fs::create_dir_all(state.join("uploads/upload-x")).unwrap();
        std::fs::create_dir_all(state.join("uploads/holiday")).unwrap();
        // The child has this process's environment until it has its own.
        while processes::marked(&format!("{MARK}={}", life.id())).is_empty() {}
        let found = life.reconcile();
        let whats: Vec<(What, bool)> = found.iter().map(|f| (f.what, f.left.is_none())).collect();
        assert_eq!(whats, [(What::Process, true), (What::Socket, true), (What::File, true)], "{found:?}");
        assert_eq!(found[0].name, left.id().to_string());
        left.wait().unwrap();
        assert!(others.try_wait().unwrap().is_none());
        others.kill().unwrap();
        others.wait().unwrap();
        let mut names: Vec<_> = entries(&run).iter().map(|p| p.file_name().unwrap().to_owned()).collect();
        names.sort();
        assert_eq!(names, ["coppiced.lock", "file", "other.sock"]);
        assert_eq!(life.reconcile(), []);
        assert!(state.join("uploads/holiday").exists(), "what is an operator's own is left alone");
    }
}

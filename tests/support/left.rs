//! What a command leaves behind: processes, temporary directories, shared memory.

use std::collections::BTreeSet;
use std::path::Path;

/// Directories and shared memory that coppice may make, by name.
pub fn leftovers() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for (dir, prefix) in [(std::env::temp_dir().as_path(), "coppice"), (Path::new("/dev/shm"), "")] {
        for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with(prefix) {
                names.insert(format!("{}/{name}", dir.display()));
            }
        }
    }
    names
}

/// Living processes that carry this mark in their environment (a name that only one test uses), as pids. A sandbox process inherits
/// the environment of the command that started it, wherever its parent is by now.
pub fn marked(mark: &str) -> Vec<i32> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse::<i32>().ok()) else { continue };
        let Ok(environ) = std::fs::read(entry.path().join("environ")) else { continue };
        let ours = environ.split(|b| *b == 0).any(|v| v == format!("COPPICE_TEST_MARK={mark}").as_bytes());
        if ours && pid != i32::try_from(std::process::id()).unwrap() {
            found.push(pid);
        }
    }
    found
}

/// Living children of a process and what became of them: (pid, state letter).
pub fn children(parent: i32) -> Vec<(i32, char)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse::<i32>().ok()) else { continue };
        let Ok(stat) = std::fs::read_to_string(entry.path().join("stat")) else { continue };
        let Some((_, rest)) = stat.rsplit_once(") ") else { continue };
        let mut fields = rest.split(' ');
        let state = fields.next().and_then(|s| s.chars().next()).unwrap_or('?');
        if fields.next().and_then(|p| p.parse().ok()) == Some(parent) {
            found.push((pid, state));
        }
    }
    found
}

/// Kills a process and waits until it is dead, if not yet reaped: a seed that dies with a request in its hands fails it, because it may have begun.
pub fn kill_dead(pid: i32) {
    let target = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(target, rustix::process::Signal::KILL).unwrap();
    let lives = || {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
    };
    assert!(eventually(|| !lives()), "process {pid} does not die");
}

/// How many descriptors a process has open.
pub fn descriptors(pid: i32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count)
}

/// Waits up to five seconds until a condition holds.
pub fn eventually(mut condition: impl FnMut() -> bool) -> bool {
    for _ in 0..500 {
        if condition() {
            return true;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    false
}

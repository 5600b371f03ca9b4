//! What a daemon makes on its host beside processes, found again by name: control groups, network namespaces, mounts, network devices.
//!
//! Names begin with [`Names::prefix`]; the finders read where the kernel lists such things and take the root of it as an argument.

use rustix::mount::{UnmountFlags, unmount};
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// How a daemon names what it makes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    prefix: String,
    device: String,
}

/// Depth to which control groups are looked through: systemd's slices and a delegated tree.
const DEPTH: usize = 8;

impl Names {
    /// For the daemon of this identity.
    pub fn of(id: &str) -> Names {
        // A network device's name has at most 15 bytes (IFNAMSIZ).
        let short: String = id.chars().take(8).collect();
        Names { prefix: format!("coppice-{id}"), device: format!("cp{short}") }
    }

    /// Of control groups, network namespaces and directories that something is mounted on: this, alone or with `-` and more after it.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Of network devices: this with up to five more bytes.
    pub fn device(&self) -> &str {
        &self.device
    }

    fn is_ours(&self, name: &[u8]) -> bool {
        let rest = name.strip_prefix(self.prefix.as_bytes());
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(b"-"))
    }

    /// Control groups below `root` (/sys/fs/cgroup), the innermost first.
    pub fn cgroups(&self, root: &Path) -> Vec<PathBuf> {
        let mut found = Vec::new();
        self.walk(root, DEPTH, false, &mut found);
        found
    }

    fn walk(&self, at: &Path, depth: usize, ours: bool, found: &mut Vec<PathBuf>) {
        if depth == 0 {
            return;
        }
        for entry in std::fs::read_dir(at).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|t| t.is_dir()) {
                let ours = ours || self.is_ours(entry.file_name().as_bytes());
                let path = entry.path();
                self.walk(&path, depth - 1, ours, found);
                if ours {
                    found.push(path);
                }
            }
        }
    }

    /// Network namespaces, by the files in `root` (/run/netns) that hold them.
    pub fn namespaces(&self, root: &Path) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(root).into_iter().flatten().flatten();
        entries.filter(|e| self.is_ours(e.file_name().as_bytes())).map(|e| e.path()).collect()
    }

    /// Network devices, by their directories in `root` (/sys/class/net).
    pub fn devices(&self, root: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(root).into_iter().flatten().flatten();
        let names = entries.filter_map(|e| e.file_name().into_string().ok());
        names.filter(|n| n.starts_with(&self.device)).collect()
    }

    /// Mount points with a directory of ours in them, from the text of /proc/self/mountinfo; the one mounted last first.
    pub fn mounts(&self, mountinfo: &[u8]) -> Vec<PathBuf> {
        let lines = mountinfo.split(|b| *b == b'\n');
        // The fifth field (proc_pid_mountinfo(5)).
        let points = lines.filter_map(|line| line.split(|b| *b == b' ').nth(4)).map(unescape);
        let mut found: Vec<PathBuf> =
            points.filter(|p| p.iter().any(|name| self.is_ours(name.as_bytes()))).collect();
        found.reverse();
        found
    }
}

/// Spaces and the like are written as octal numbers in mountinfo.
fn unescape(field: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, after)) = rest.split_first() {
        let octal = after.get(..3).filter(|_| *first == b'\\').and_then(|d| std::str::from_utf8(d).ok());
        match octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = after.get(3..).unwrap_or_default();
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    OsString::from_vec(bytes).into()
}

/// Removes an empty control group.
pub fn remove_cgroup(path: &Path) -> std::io::Result<()> {
    // Its files go with it: it is not emptied first as another directory would be.
    std::fs::remove_dir(path)
}

/// Removes what holds a network namespace.
pub fn remove_namespace(path: &Path) -> std::io::Result<()> {
    // Where nothing is mounted on it, it is a file that was left.
    let _ = unmount(path, UnmountFlags::DETACH);
    std::fs::remove_file(path)
}

/// Takes away what is mounted at a path.
pub fn remove_mount(path: &Path) -> std::io::Result<()> {
    Ok(unmount(path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_this_daemon_are_found() {
        let names = Names::of("0123456789ab");
        let dir = tempfile::tempdir().unwrap();
        for path in [
            "a/coppice-0123456789ab/x/y",
            "coppice-0123456789ab-1",
            "coppice-0123456789abc",
            "coppice-0123456789a",
            "x-coppice-0123456789ab",
            "coppice-ffffffffffff",
        ] {
            std::fs::create_dir_all(dir.path().join(path)).unwrap();
        }
        let mut found = names.cgroups(dir.path());
        let inner = found.iter().position(|p| p.ends_with("x/y")).unwrap();
        let outer = found.iter().position(|p| p.ends_with("coppice-0123456789ab")).unwrap();
        assert!(inner < outer, "the innermost can be removed first");
        found.sort();
        let relative: Vec<_> =
            found.iter().map(|p| p.strip_prefix(dir.path()).unwrap().to_str().unwrap()).collect();
        assert_eq!(
            relative,
            [
                "a/coppice-0123456789ab",
                "a/coppice-0123456789ab/x",
                "a/coppice-0123456789ab/x/y",
                "coppice-0123456789ab-1"
            ]
        );
        assert_eq!(names.namespaces(dir.path()), [dir.path().join("coppice-0123456789ab-1")]);
        assert!(names.cgroups(Path::new("/nowhere")).is_empty());
        for device in ["cp01234567-1", "cp01234568", "eth0"] {
            std::fs::create_dir(dir.path().join(device)).unwrap();
        }
        assert_eq!(names.devices(dir.path()), ["cp01234567-1"]);
        assert!(names.device().len() <= 10);
    }

    #[test]
    fn mounts_are_found_whatever_is_in_their_names() {
        let names = Names::of("0123456789ab");
        let info = b"22 1 0:21 / /proc rw - proc proc rw\n\
            30 22 0:40 / /run/a\\040b/coppice-0123456789ab rw - tmpfs none rw\n\
            31 30 0:41 / /run/a\\040b/coppice-0123456789ab/in\\134ner rw - tmpfs none rw\n\
            32 22 0:42 /coppice-0123456789ab /other rw - tmpfs none rw\nshort\n";
        let found = names.mounts(info);
        assert_eq!(
            found,
            [Path::new("/run/a b/coppice-0123456789ab/in\\ner"), Path::new("/run/a b/coppice-0123456789ab")]
        );
        assert!(names.mounts(&std::fs::read("/proc/self/mountinfo").unwrap()).is_empty());
    }
}

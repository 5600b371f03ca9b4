//! One daemon per directory: a locked file (flock(2)) that names its holder. The kernel lets go of it when the holder ends, however it ends.

use super::error::LifeError;
use super::processes::start_time;
use rustix::fs::{FlockOperation, Mode, OFlags, flock};
use rustix::io::Errno;
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Name of the file in a directory.
const NAME: &str = "coppiced.lock";

/// Who has a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Its process.
    pub pid: i32,
    /// When the process began, in ticks since the host's start (proc_pid_stat(5)): with it, the id is of one process only.
    pub start: u64,
}

/// A lock that is held. Dropped, it is given up and its file removed.
#[derive(Debug)]
pub struct Lock {
    path: PathBuf,
    file: File,
}

impl Lock {
    /// Takes the lock of a directory.
    pub fn take(directory: &Path) -> Result<Lock, LifeError> {
        let path = directory.join(NAME);
        let failed = |e: Errno| LifeError::Lock { path: path.clone(), source: e.into() };
        loop {
            let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let mode = Mode::RUSR | Mode::WUSR | Mode::RGRP | Mode::ROTH;
            let mut file = File::from(rustix::fs::open(&path, flags, mode).map_err(failed)?);
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(Errno::WOULDBLOCK) => {
                    let mut text = String::new();
                    let _ = file.read_to_string(&mut text);
                    return Err(LifeError::InUse { directory: directory.to_owned(), holder: parse(&text) });
                }
                Err(Errno::INTR) => continue,
                Err(error) => return Err(failed(error)),
            }
            // The one before removes its file while it holds it: this may be that one.
            let same = match (file.metadata(), std::fs::symlink_metadata(&path)) {
                (Ok(ours), Ok(there)) => (ours.dev(), ours.ino()) == (there.dev(), there.ino()),
                _ => false,
            };
            if !same {
                continue;
            }
            let pid = i32::try_from(std::process::id()).unwrap_or(0);
            let write = |file: &mut File| {
                file.set_len(0)?;
                file.rewind()?;
                writeln!(file, "pid {pid}\nstart {}", start_time(pid).unwrap_or(0))
            };
            // The lock is what counts; on a full disk it has no text.
            if let Err(error) = write(&mut file) {
                tracing::warn!(path = %path.display(), %error, "the lock does not name its holder");
            }
            return Ok(Lock { path, file });
        }
    }
}

fn parse(text: &str) -> Option<Holder> {
    let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    Some(Holder { pid: field("pid")?.parse().ok()?, start: field("start")?.parse().ok()? })
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Before it is given up: nobody else's file is removed.
        let _ = std::fs::remove_file(&self.path);
        let _ = flock(&self.file, FlockOperation::Unlock);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_taker_is_told_of_the_first() {
        let dir = tempfile::tempdir().unwrap();
        let lock = Lock::take(dir.path()).unwrap();
        let pid = i32::try_from(std::process::id()).unwrap();
        match Lock::take(dir.path()) {
            Err(LifeError::InUse { holder: Some(holder), .. }) => {
                assert_eq!(holder, Holder { pid, start: start_time(pid).unwrap() });
            }
            other => panic!("{other:?}"),
        }
        drop(lock);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        drop(Lock::take(dir.path()).unwrap());
    }

    #[test]
    fn what_a_crash_left_is_no_lock() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(NAME), "pid 1\nstart 1\n").unwrap();
        let _lock = Lock::take(dir.path()).unwrap();
        let text = std::fs::read_to_string(dir.path().join(NAME)).unwrap();
        assert_eq!(parse(&text).unwrap().pid, i32::try_from(std::process::id()).unwrap());
    }

    #[test]
    fn of_many_takers_one_has_it() {
        let dir = tempfile::tempdir().unwrap();
        let inside = std::sync::atomic::AtomicUsize::new(0);
        let had = std::sync::atomic::AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..200 {
                        if let Ok(lock) = Lock::take(dir.path()) {
                            assert_eq!(inside.fetch_add(1, std::sync::atomic::Ordering::SeqCst), 0);
                            had.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                            inside.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
                            drop(lock);
                        }
                    }
                });
            }
        });
        assert!(had.into_inner() > 0);
    }

    #[test]
    fn other_text_names_nobody() {
        for text in ["", "pid x\nstart 1", "pid 5", "garbage"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}

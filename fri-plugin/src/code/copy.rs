//! Copying a directory of the host. What is in it may change meanwhile, and links in it are not followed.

use super::error::{CodeError, Refusal};
use super::staging::{Side, Staging};
use super::tree;
use rustix::fs::{Dir, FileType, Mode, OFlags, Timespec, Timestamps, UTIME_OMIT};
use rustix::io::Errno;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::Path;

const FLAGS: OFlags = OFlags::RDONLY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC).union(OFlags::NONBLOCK);

/// Copies all of it.
pub fn copy(from: &Path, into: &mut Staging) -> Result<(), CodeError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(from, flags, Mode::empty()).map_err(|e| unreadable(from, e))?;
    directory(from, root, "", into)
}

fn unreadable(path: &Path, source: Errno) -> CodeError {
    CodeError::Read { path: path.to_owned(), source: source.into() }
}

fn directory(base: &Path, dir: OwnedFd, at: &str, into: &mut Staging) -> Result<(), CodeError> {
    let here = base.join(at);
    let mut names = Vec::new();
    for entry in Dir::read_from(&dir).map_err(|e| unreadable(&here, e))? {
        let entry = entry.map_err(|e| unreadable(&here, e))?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(name.to_owned());
        }
    }
    names.sort();
    for name in names {
        let given = [at.as_bytes(), if at.is_empty() { b"" } else { b"/" }, &name].concat();
        let path = tree::path(&given)?;
        let full = base.join(&path);
        let read = |e| unreadable(&full, e);
        // Where it is a link, it is not opened. A fifo is, without waiting for its other end.
        let file = match rustix::fs::openat(&dir, name.as_slice(), FLAGS, Mode::empty()) {
            Ok(file) => file,
            Err(Errno::LOOP) => {
                let target = rustix::fs::readlinkat(&dir, name.as_slice(), Vec::new()).map_err(read)?;
                into.link(path, target.as_bytes())?;
                continue;
            }
            // A socket, or a device without a driver.
            Err(Errno::NXIO | Errno::NODEV) => return Err(CodeError::entry(&given, Refusal::Special)),
            Err(error) => return Err(read(error)),
        };
        let stat = rustix::fs::fstat(&file).map_err(read)?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                into.directory(path.clone())?;
                directory(base, file, &path, into)?;
            }
            FileType::RegularFile => {
                let executable =
                    Mode::from_raw_mode(stat.st_mode).intersects(Mode::XUSR | Mode::XGRP | Mode::XOTH);
                let copied = match into.file(path, executable, File::from(file)) {
                    Ok((copied, _)) => copied,
                    Err(Side::Own(error)) => return Err(error),
                    Err(Side::Source(source)) => return Err(CodeError::Read { path: full, source }),
                };
                // Python tells by it whether what it compiled earlier is of this source.
                let times = Timestamps {
                    last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
                    last_modification: Timespec {
                        tv_sec: stat.st_mtime,
                        tv_nsec: i64::try_from(stat.st_mtime_nsec).unwrap_or(0),
                    },
                };
                let _ = rustix::fs::futimens(&copied, &times);
            }
            _ => return Err(CodeError::entry(&given, Refusal::Special)),
        }
    }
    Ok(())
}

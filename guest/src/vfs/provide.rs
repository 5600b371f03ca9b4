//! Files that the host gives a sandbox before its first program starts, such as a language runtime's own.

use super::inode::Kind;
use crate::abi::AT_FDCWD;
use crate::errno::Errno;
use crate::kernel::Kernel;
use crate::num::u64_of;
use std::collections::BTreeMap;

/// No task has this id: the kernel itself asks.
const NOBODY: u32 = 0;

impl Kernel {
    /// Makes a regular file of the in-memory layer at an absolute path, and the directories above it that are missing; root owns them.
    /// EEXIST, ENOTDIR, ENOSPC.
    pub fn provide_file(&mut self, path: &[u8], data: &[u8], mode: u32) -> Result<(), Errno> {
        for (at, _) in path.iter().enumerate().skip(1).filter(|(_, b)| **b == b'/') {
            let walk = self.resolve(NOBODY, AT_FDCWD, path.get(..at).unwrap_or_default(), true)?;
            if walk.inode.is_none() {
                self.make_dir(NOBODY, &walk, 0o755)?;
            }
        }
        let walk = self.resolve(NOBODY, AT_FDCWD, path, false)?;
        let mode = super::inode::S_IFREG | (mode & 0o777);
        let inode = self.create(NOBODY, &walk, Kind::File(BTreeMap::new()), mode, 0)?;
        let mut done = 0;
        while let Some(rest) = data.get(done..).filter(|r| !r.is_empty()) {
            let n = self.inode_write(inode, u64_of(done), rest)?;
            if n == 0 {
                return Err(Errno::ENOSPC);
            }
            done = done.saturating_add(n);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::Limits;
    use crate::platform::fake::FakePlatform;

    #[test]
    fn a_provided_file_has_its_directories_and_its_bytes_and_is_made_once() {
        let platform = std::sync::Arc::new(FakePlatform::new(64 << 20));
        let mut k = Kernel::new(platform, Limits::default()).unwrap();
        let data: Vec<u8> = (0..10_000u32).map(|i| i.to_le_bytes()[0]).collect();
        k.provide_file(b"/run/a/b/file", &data, 0o644).unwrap();
        let inode = k.resolve(0, AT_FDCWD, b"/run/a/b/file", true).unwrap().inode.unwrap();
        assert_eq!(k.vfs.inode(inode).unwrap().stat.mode & 0o7777, 0o644);
        let mut buf = vec![0; 20_000];
        let mut got = Vec::new();
        loop {
            let n = k.inode_read(inode, u64_of(got.len()), &mut buf).unwrap();
            if n == 0 {
                break;
            }
            got.extend_from_slice(&buf[..n]);
        }
        assert_eq!(got, data);
        assert_eq!(k.provide_file(b"/run/a/b/file", b"", 0o644), Err(Errno::EEXIST));
        assert_eq!(k.provide_file(b"/run/a/b/file/x", b"", 0o644), Err(Errno::ENOTDIR));
    }
}

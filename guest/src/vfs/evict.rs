//! Forgetting what was only looked at: inodes and names of lower files that nobody changed or uses. A `find /` would otherwise leave
//! something in the sandbox's memory for each file of the host.

use super::InodeId;
use super::inode::{Inode, Kind, ROOT, Target, dtype};
use crate::kernel::Kernel;

/// Inodes besides those of the in-memory layer that are kept before the idle ones are forgotten; each takes some 500 bytes.
pub(super) const KEEP: usize = 1 << 15;

impl Kernel {
    /// Forgets idle lower inodes when there are many. To be called between system calls only: within one, inodes are held by number.
    pub fn forget_idle_inodes(&mut self) {
        if self.vfs.inodes.len() < self.vfs.forget_at {
            return;
        }
        let used: std::collections::BTreeSet<InodeId> =
            self.fs_contexts.iter().flat_map(|(_, f)| [f.root, f.cwd]).collect();
        // Those in a directory were found after it, so they come first here.
        let all: Vec<InodeId> = self.vfs.inodes.keys().rev().copied().collect();
        for id in all {
            if !used.contains(&id) && self.is_idle(id) {
                self.forget(id);
            }
        }
        self.vfs.close_idle_fds();
        self.vfs.forget_at = self.vfs.inodes.len() + KEEP;
    }

    fn is_idle(&self, id: InodeId) -> bool {
        let Ok(node) = self.vfs.inode(id) else { return false };
        let known_anew = match &node.kind {
            Kind::Host { .. } | Kind::Symlink(_) | Kind::Special => true,
            Kind::Dir(d) => {
                d.names.values().all(|e| matches!(e.target, Target::Lower(..) | Target::Negative))
            }
            _ => false,
        };
        known_anew
            && id != ROOT
            && node.opens == 0
            && node.stat.nlink > 0
            && (self.is_live(id) || (node.is_lower() && !node.changed))
            && !self.objects.watches.has(id)
            && !self.objects.fifos.contains_key(&id)
            && !self.vfs.mounts.covers(id)
            && self.vfs.mounts.all.values().all(|m| m.root != id)
            && self.vfs.dir(node.parent).is_ok_and(|d| d.inode_of(&node.name) == Some(id))
    }

    /// The name stays in its directory as one that was listed.
    fn forget(&mut self, id: InodeId) {
        let Ok(Inode { parent, name, stat, .. }) = self.vfs.inode(id) else { return };
        let (parent, name, seen) = (*parent, name.clone(), Target::Lower(stat.ino, dtype(stat.mode)));
        if let Ok(d) = self.vfs.dir_mut(parent) {
            d.set(&name, seen);
        }
        // A lower inode has no pages to give back.
        self.vfs.drop_inode(id);
    }
}

//! What /proc says of an address space, and the choice of a victim when memory runs out.

use super::vma::{Backing, Prot, Special, VmFlags};
use crate::kernel::Kernel;
use crate::platform::{PAGE_SIZE, Va};
use crate::task::ExitStatus;
use std::fmt::Write;

/// Sizes of an address space in bytes, for /proc/pid/statm and status.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MmStats {
    /// All mappings.
    pub total_vm: u64,
    /// Backed now: an upper bound of what is resident, since the host allocates at the first touch.
    pub resident: u64,
    /// The part of `resident` that is file-backed or shared.
    pub shared: u64,
    /// Private writable mappings without the stack.
    pub data: u64,
    /// The stack.
    pub stack: u64,
    /// Executable mappings of files.
    pub exe: u64,
}

impl Kernel {
    /// The text of /proc/pid/maps, in proc_pid_maps(5)'s format.
    pub fn mm_maps_text(&self, mm: u64) -> String {
        let mut out = String::new();
        let Some(m) = self.mms.get(mm) else { return out };
        for (start, vma) in &m.vmas {
            let bit = |p: Prot, c: char| if vma.prot.contains(p) { c } else { '-' };
            let kind = if vma.flags.contains(VmFlags::SHARED) { 's' } else { 'p' };
            let mut offset = 0;
            let (mut dev, mut ino) = (0, 0);
            let name = match &vma.backing {
                Backing::Anon => String::new(),
                Backing::Special(s) => s.name().to_owned(),
                Backing::File { file, offset: at } => {
                    offset = *at;
                    if let Some(inode) = self.files.get(*file).map(|f| &f.kind)
                        && let crate::vfs::FileKind::Inode(id) = inode
                    {
                        (dev, ino) = (1, *id);
                    }
                    String::from_utf8_lossy(&self.file_path(*file)).replace('\n', "\\012")
                }
            };
            let mut line = format!(
                "{:08x}-{:08x} {}{}{}{} {:08x} {:02x}:{:02x} {} ",
                start,
                vma.end,
                bit(Prot::READ, 'r'),
                bit(Prot::WRITE, 'w'),
                bit(Prot::EXEC, 'x'),
                kind,
                offset,
                dev >> 8,
                dev & 0xff,
                ino
            );
            if !name.is_empty() {
                // The name begins at column 74.
                while line.len() < 73 {
                    line.push(' ');
                }
                line.push_str(&name);
            }
            let _ = writeln!(out, "{line}");
        }
        out
    }

    /// Sizes of an address space; zeroes when there is none.
    pub fn mm_stats(&self, mm: u64) -> MmStats {
        let mut stats = MmStats::default();
        let Some(m) = self.mms.get(mm) else { return stats };
        stats.total_vm = m.total;
        for (start, vma) in &m.vmas {
            let len = vma.end - start;
            if vma.backing == Backing::Special(Special::Stack) {
                stats.stack += len;
            } else if vma.prot.contains(Prot::WRITE) && !vma.flags.contains(VmFlags::SHARED) {
                stats.data += len;
            } else if vma.prot.contains(Prot::EXEC) && matches!(vma.backing, Backing::File { .. }) {
                stats.exe += len;
            }
        }
        for (start, piece) in &m.pieces {
            let len = piece.end - start;
            stats.resident += len;
            if piece.cow || self.frames.is_file(piece.gpa) || self.frames.refs(piece.gpa) > 1 {
                stats.shared += len;
            }
        }
        stats
    }

    /// Kills the process with the most backed memory: the sandbox is above its memory limit.
    pub fn out_of_memory(&mut self) {
        let mut worst: Option<(u64, u32)> = None;
        for task in self.tasks.values() {
            let stats = self.mm_stats(task.mm);
            let size = stats.resident - stats.shared;
            let alive = self.processes.get(&task.pid).is_some_and(|p| p.zombie.is_none());
            if alive && worst.is_none_or(|(w, _)| size > w) {
                worst = Some((size, task.pid));
            }
        }
        if let Some((_, pid)) = worst {
            self.counters.oom_kills += 1;
            self.exit_process(pid, ExitStatus::Signal(9));
        }
    }

    /// Pages of a range as mincore(2) reports them: 1 where something backs the page. `None` when a page is not mapped.
    pub fn mm_residency(&self, mm: u64, start: Va, end: Va) -> Option<Vec<u8>> {
        let m = self.mms.get(mm)?;
        if !m.covered(start, end) {
            return None;
        }
        let mut out = Vec::new();
        let mut at = start;
        while at < end {
            let (backed, next) = match m.piece(at) {
                Some((_, p)) => (1, p.end),
                None => (0, m.pieces.range(at..).next().map_or(end, |(s, _)| *s)),
            };
            let next = next.min(end);
            out.resize(out.len() + crate::num::us((next - at) / PAGE_SIZE), backed);
            at = next;
        }
        Some(out)
    }
}

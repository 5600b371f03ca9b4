//! What /proc says of an address space, and the choice of a victim when memory runs out.

use super::vma::{Backing, Prot, Special, VmFlags};
use crate::kernel::Kernel;
use crate::platform::{PAGE_SIZE, Va};
use crate::task::ExitStatus;

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

/// What smaps says of a mapping, bytes.
#[derive(Clone, Copy, Debug, Default)]
struct Usage {
    size: u64,
    resident: u64,
    shared: u64,
    anonymous: u64,
    locked: u64,
}

impl Usage {
    fn add(&mut self, other: &Usage) {
        self.size += other.size;
        self.resident += other.resident;
        self.shared += other.shared;
        self.anonymous += other.anonymous;
        self.locked += other.locked;
    }

    fn text(&self, whole: bool) -> String {
        let own = self.resident - self.shared;
        let head: &[(&str, u64)] =
            if whole { &[("Size", self.size), ("KernelPageSize", 4096), ("MMUPageSize", 4096)] } else { &[] };
        let rest = [
            ("Rss", self.resident),
            ("Pss", own + self.shared / 2),
            ("Shared_Clean", 0),
            ("Shared_Dirty", self.shared),
            ("Private_Clean", 0),
            ("Private_Dirty", own),
            ("Referenced", self.resident),
            ("Anonymous", self.anonymous),
            ("LazyFree", 0),
            ("AnonHugePages", 0),
            ("ShmemPmdMapped", 0),
            ("FilePmdMapped", 0),
            ("Shared_Hugetlb", 0),
            ("Private_Hugetlb", 0),
            ("Swap", 0),
            ("SwapPss", 0),
            ("Locked", self.locked),
        ];
        let line = |(name, bytes): &(&str, u64)| format!("{:<16}{:8} kB\n", format!("{name}:"), bytes / 1024);
        let tail = if whole { "THPeligible:           0\n" } else { "" };
        head.iter().chain(&rest).map(line).collect::<String>() + tail
    }
}

/// The line of smaps that names a mapping's properties.
fn flags_line(vma: &super::Vma) -> String {
    let mut out = String::from("VmFlags:");
    for (on, name) in [
        (vma.prot.contains(Prot::READ), "rd"),
        (vma.prot.contains(Prot::WRITE), "wr"),
        (vma.prot.contains(Prot::EXEC), "ex"),
        (vma.flags.contains(VmFlags::SHARED), "sh"),
        (vma.may.contains(Prot::READ), "mr"),
        (vma.may.contains(Prot::WRITE), "mw"),
        (vma.may.contains(Prot::EXEC), "me"),
        (vma.flags.contains(VmFlags::GROWSDOWN), "gd"),
        (vma.flags.contains(VmFlags::LOCKED), "lo"),
        (vma.flags.contains(VmFlags::DONTFORK), "dc"),
        (vma.flags.contains(VmFlags::NORESERVE), "nr"),
        (vma.flags.contains(VmFlags::WIPEONFORK), "wf"),
    ] {
        if on {
            out.push(' ');
            out.push_str(name);
        }
    }
    out.push_str(" \n");
    out
}

impl Kernel {
    /// The text of /proc/pid/maps, in proc_pid_maps(5)'s format.
    pub fn mm_maps_text(&self, mm: u64) -> String {
        let mut out = String::new();
        self.mm_records(mm, 0, false, |_, record| {
            out += record;
            true
        });
        out
    }

    /// The records of /proc/pid/maps or smaps from the mapping at or above `from` on, with their addresses, until `take` has enough.
    pub fn mm_records(&self, mm: u64, from: Va, smaps: bool, mut take: impl FnMut(Va, &str) -> bool) {
        let Some(m) = self.mms.get(mm) else { return };
        for (start, vma) in m.vmas.range(from..) {
            let mut record = self.maps_line(*start, vma);
            if smaps {
                record += &self.usage(m, *start, vma).text(true);
                record += &flags_line(vma);
            }
            if !take(*start, &record) {
                return;
            }
        }
    }

    /// What is backed counts as resident; what others refer to too as shared.
    fn usage(&self, m: &super::Mm, start: Va, vma: &super::Vma) -> Usage {
        let mut usage = Usage { size: vma.end - start, ..Usage::default() };
        let first = m.piece(start).map_or(start, |(s, _)| s);
        for (s, p) in m.pieces.range(first..vma.end) {
            let len = p.end.min(vma.end) - (*s).max(start);
            let file = self.frames.is_file(p.gpa);
            let shared = self.frames.refs(p.gpa) > 1;
            usage.resident += len;
            usage.shared += if shared { len } else { 0 };
            usage.anonymous += if file || matches!(vma.backing, Backing::File { .. }) { 0 } else { len };
        }
        usage.locked = if vma.flags.contains(VmFlags::LOCKED) { usage.resident } else { 0 };
        usage
    }

    /// The text of /proc/pid/smaps_rollup: one sum.
    pub fn mm_rollup_text(&self, mm: u64) -> String {
        let Some(m) = self.mms.get(mm) else { return String::new() };
        let mut sum = Usage::default();
        for (start, vma) in &m.vmas {
            sum.add(&self.usage(m, *start, vma));
        }
        let (first, last) =
            (m.vmas.keys().next().copied().unwrap_or(0), m.vmas.values().last().map_or(0, |v| v.end));
        let line = format!("{first:08x}-{last:08x} ---p 00000000 00:00 0 ");
        format!("{line:<73}[rollup]\n{}", sum.text(false))
    }

    fn maps_line(&self, start: Va, vma: &super::Vma) -> String {
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
        line.push('\n');
        line
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

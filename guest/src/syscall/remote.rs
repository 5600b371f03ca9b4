//! System calls on another process's memory: process_vm_readv, process_vm_writev. The bytes go through kernel memory.

use super::{Arg, Context, Entry, ret};
use crate::errno::Errno;
use crate::num::{int, low32, u64_of, us};
use crate::platform::Va;
use crate::wait::SysResult;

/// Bytes moved at a time.
const PIECE: u64 = 65536;
/// Most that one call moves: the kernel is locked meanwhile.
const MOST: u64 = 16 << 20;

const ARGS: &[Arg] = &[Arg::Int, Arg::Ptr, Arg::Uint, Arg::Ptr, Arg::Uint, Arg::Hex];
const NOTE: &str = "moves at most 16 MiB at once";

/// This family's calls.
pub const TABLE: &[Entry] = &[
    Entry::partial(310, "process_vm_readv", ARGS, NOTE, process_vm_readv),
    Entry::partial(311, "process_vm_writev", ARGS, NOTE, process_vm_writev),
];

fn process_vm_readv(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    transfer(c, a, false)
}

fn process_vm_writev(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    transfer(c, a, true)
}

/// What one side has left, piece by piece.
struct Pieces {
    list: std::vec::IntoIter<(Va, u64)>,
    now: (Va, u64),
}

impl Pieces {
    fn new(list: Vec<(Va, u64)>) -> Self {
        Pieces { list: list.into_iter(), now: (0, 0) }
    }

    /// The next stretch that is not empty.
    fn next(&mut self) -> Option<(Va, u64)> {
        while self.now.1 == 0 {
            self.now = self.list.next()?;
        }
        Some(self.now)
    }

    fn advance(&mut self, n: u64) {
        self.now = (self.now.0.saturating_add(n), self.now.1.saturating_sub(n));
    }
}

/// Moves bytes between the caller and process `pid`, until the first that cannot be moved. EFAULT where there is none before it.
fn transfer(c: &mut Context<'_>, a: &[u64; 6], write: bool) -> SysResult {
    let [pid, local, locals, remote, remotes, flags] = *a;
    // Linux keeps 32 bits of the first count.
    let locals = u64::from(low32(locals));
    if flags != 0 {
        return Err(Errno::EINVAL);
    }
    let local = c.k.read_iovecs(c.tid, local, locals)?;
    for (base, len) in &local {
        super::user_range(*base, *len)?;
    }
    if local.iter().all(|(_, len)| *len == 0) {
        return ret(0);
    }
    let remote = c.k.read_iovecs(c.tid, remote, remotes)?;
    if remote.iter().all(|(_, len)| *len == 0) {
        return ret(0);
    }
    let pid = u32::try_from(int(pid)).map_err(|_| Errno::ESRCH)?;
    let other = c.k.remote_mm(c.tid, pid, true)?;
    let own = c.k.task(c.tid).map(|t| t.mm).ok_or(Errno::EFAULT)?;
    let (from, to) = if write { (own, other) } else { (other, own) };
    let (mut near, mut far) = (Pieces::new(local), Pieces::new(remote));
    let mut done = 0u64;
    while let (Some((near_va, near_len)), Some((far_va, far_len))) = (near.next(), far.next()) {
        let n = near_len.min(far_len).min(PIECE).min(MOST - done);
        if n == 0 {
            break;
        }
        let (source, target) = if write { (near_va, far_va) } else { (far_va, near_va) };
        let mut bytes = vec![0; us(n)];
        let read = c.k.mm_read_partial(from, source, &mut bytes);
        bytes.truncate(read);
        let moved = u64_of(c.k.mm_write_partial(to, target, &bytes));
        done = done.saturating_add(moved);
        if moved < n {
            break;
        }
        near.advance(n);
        far.advance(n);
    }
    if done == 0 { Err(Errno::EFAULT) } else { ret(done) }
}

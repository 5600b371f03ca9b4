//! Guest page tables, written by the VMM.
//!
//! Owns the pool of table pages in the low arena and the discipline that keeps KVM's own translations true where KVM shadows guest
//! page tables and does not see our writes:
//!
//! - A leaf that becomes present, or only gains rights, needs nothing: the next access faults into KVM, which walks again.
//! - Any other change of a leaf is paired with [`Arena::invalidate`] of its old target before the call returns.
//! - A present non-leaf entry never changes while its root lives. Where KVM shadows, a 2 MiB leaf counts as non-leaf
//!   (KVM hangs a page of its own below it), so taking one away, or splitting it, needs a full zap as well.
//! - A table page goes back to the pool when its root is destroyed, and is used again only after a full zap.
//!
//! Longer than most files here, because what may not be separated is the discipline above and each walk that has to keep it.
//!
//! Every entry is created with Accessed (and Dirty where writable), so that KVM need not write to the tables.

use crate::arena::Arena;
use crate::layout;
use crate::lock::{Guard, Ordered, Rank};
use guest::platform::{Access, Gpa, LARGE_PAGE, PAGE_SIZE, PlatformError, Root, TASK_SIZE, Va};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

const PRESENT: u64 = 1;
const WRITE: u64 = 1 << 1;
const USER: u64 = 1 << 2;
/// Set by the processor (or KVM) at an access.
pub const ACCESSED: u64 = 1 << 5;
/// Set by the processor (or KVM) at a store.
pub const DIRTY: u64 = 1 << 6;
const LARGE: u64 = 1 << 7;
const NO_EXEC: u64 = 1 << 63;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
const TABLE: u64 = PRESENT | WRITE | USER | ACCESSED;
const ENTRIES: u64 = 512;

/// What the tables need of the virtual machine, if there is one.
pub trait Translations: Send + Sync + std::fmt::Debug {
    /// Whether a virtual machine exists that may hold translations.
    fn live(&self) -> bool;
    /// Whether KVM may shadow guest page tables (true when it is not known).
    fn shadow(&self) -> bool;
    /// Makes KVM forget every translation and every page of its own.
    fn full_zap(&self) -> Result<(), PlatformError>;
}

/// Which table pages are in use: plain data, inherited by a fork with the pages themselves.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Pool {
    /// First page never used (so it is zero).
    next: Gpa,
    /// Zeroed pages.
    free: Vec<Gpa>,
    /// Pages of destroyed roots that KVM may still take for tables.
    stale: Vec<Gpa>,
    roots: BTreeSet<Gpa>,
}

/// See the module.
#[derive(Debug)]
pub struct PageTables {
    arena: Arc<Arena>,
    kvm: Arc<dyn Translations>,
    pool: Ordered<Pool>,
}

/// What an operation has to invalidate before it returns.
#[derive(Debug, Default)]
struct Stale {
    runs: Vec<(Gpa, u64)>,
    large: bool,
}

impl Stale {
    fn add(&mut self, gpa: Gpa, len: u64) {
        match self.runs.last_mut() {
            Some((start, n)) if *start + *n == gpa => *n += len,
            _ => self.runs.push((gpa, len)),
        }
    }

    /// Runs that lie side by side become one: each costs two system calls of the host.
    fn join(&mut self) {
        self.runs.sort_unstable();
        for (gpa, len) in std::mem::take(&mut self.runs) {
            self.add(gpa, len);
        }
    }
}

impl PageTables {
    /// Tables in the low arena; writes the window's shared directory and table.
    pub fn new(arena: Arc<Arena>, kvm: Arc<dyn Translations>) -> Result<Self, PlatformError> {
        let pool = Pool { next: layout::POOL, free: Vec::new(), stale: Vec::new(), roots: BTreeSet::new() };
        let tables = PageTables { arena, kvm, pool: Ordered::new(Rank::Tables, pool) };
        tables.set(layout::WINDOW_PD, layout::WINDOW_PT | TABLE)?;
        let stub = layout::STUB | PRESENT | USER | ACCESSED;
        tables.set(layout::WINDOW_PT + layout::STUB / PAGE_SIZE * 8, stub)?;
        for page in (layout::TOUCH_LIST..layout::VCPU_PAGES).step_by(PAGE_SIZE as usize) {
            let entry = page | PRESENT | USER | ACCESSED | NO_EXEC;
            tables.set(layout::WINDOW_PT + page / PAGE_SIZE * 8, entry)?;
        }
        // The processor only reads the descriptor tables and task state segments; the exception stacks it writes.
        let read_only = PRESENT | ACCESSED | NO_EXEC;
        for page in [layout::GDT, layout::IDT] {
            tables.set(layout::WINDOW_PT + page / PAGE_SIZE * 8, page | read_only)?;
        }
        for vcpu in 0..layout::MAX_VCPUS {
            let (tss, stack) = (layout::tss(vcpu), layout::stack_top(vcpu) - PAGE_SIZE);
            tables.set(layout::WINDOW_PT + tss / PAGE_SIZE * 8, tss | read_only)?;
            tables.set(layout::WINDOW_PT + stack / PAGE_SIZE * 8, stack | read_only | WRITE | DIRTY)?;
        }
        Ok(tables)
    }

    fn lock(&self) -> Guard<'_, Pool> {
        self.pool.lock()
    }

    fn get(&self, at: Gpa) -> Result<u64, PlatformError> {
        Ok(self.arena.entry(at)?.load(Ordering::Acquire))
    }

    fn set(&self, at: Gpa, value: u64) -> Result<(), PlatformError> {
        self.arena.entry(at)?.store(value, Ordering::Release);
        Ok(())
    }

    fn take_table(&self, pool: &mut Pool) -> Result<Gpa, PlatformError> {
        if let Some(page) = pool.free.pop() {
            return Ok(page);
        }
        if pool.next < layout::POOL_END {
            let page = pool.next;
            pool.next += PAGE_SIZE;
            return Ok(page);
        }
        self.recycle(pool)?;
        pool.free.pop().ok_or(PlatformError::Exhausted)
    }

    fn recycle(&self, pool: &mut Pool) -> Result<(), PlatformError> {
        if pool.stale.is_empty() {
            return Ok(());
        }
        if self.kvm.live() {
            self.kvm.full_zap()?;
        }
        for page in std::mem::take(&mut pool.stale) {
            self.arena.write(page, &[0; PAGE_SIZE as usize])?;
            pool.free.push(page);
        }
        Ok(())
    }

    /// Makes the pages of destroyed roots usable again. Called when no virtual machine exists: it costs nothing then.
    pub fn machine_gone(&self) -> Result<(), PlatformError> {
        self.recycle(&mut self.lock())
    }

    /// An empty address space with only the window.
    pub fn create_root(&self) -> Result<Root, PlatformError> {
        let mut pool = self.lock();
        let root = self.take_table(&mut pool)?;
        let directory = match self.take_table(&mut pool) {
            Ok(page) => page,
            Err(e) => {
                pool.free.push(root);
                return Err(e);
            }
        };
        self.set(directory + index(layout::WINDOW, 3) * 8, layout::WINDOW_PD | TABLE)?;
        self.set(root + index(layout::WINDOW, 4) * 8, directory | TABLE)?;
        pool.roots.insert(root);
        Ok(Root(root))
    }

    /// Gives an address space's tables back, with whatever leaves are in them: nobody loads the root again, and its pages are used
    /// again only after a full zap, so what KVM still holds for them is out of reach. A root that does not exist is ignored.
    pub fn destroy_root(&self, root: Root) {
        let mut pool = self.lock();
        if pool.roots.remove(&root.0) {
            let _ = self.collect(root.0, 4, &mut pool.stale);
        }
    }

    fn collect(&self, table: Gpa, level: u32, into: &mut Vec<Gpa>) -> Result<(), PlatformError> {
        into.push(table);
        if level == 1 {
            return Ok(());
        }
        for i in 0..ENTRIES {
            let entry = self.get(table + i * 8)?;
            let child = entry & ADDRESS;
            if entry & PRESENT != 0 && entry & LARGE == 0 && child >= layout::POOL {
                self.collect(child, level - 1, into)?;
            }
        }
        Ok(())
    }

    /// All address spaces.
    pub fn roots(&self) -> Vec<Root> {
        self.lock().roots.iter().map(|r| Root(*r)).collect()
    }

    /// The directory (level 2) table of an address; made when `pool` is given, else `None` and the bytes to skip.
    fn directory(
        &self,
        root: Root,
        va: Va,
        mut pool: Option<&mut Pool>,
    ) -> Result<Result<Gpa, u64>, PlatformError> {
        let mut table = root.0;
        for level in [4, 3] {
            let at = table + index(va, level) * 8;
            let entry = self.get(at)?;
            table = if entry & PRESENT != 0 {
                entry & ADDRESS
            } else if let Some(pool) = pool.as_deref_mut() {
                let fresh = self.take_table(pool)?;
                self.set(at, fresh | TABLE)?;
                fresh
            } else {
                let span = span(level);
                return Ok(Err(span - va % span));
            };
        }
        Ok(Ok(table))
    }

    /// Maps a range; see [`guest::platform::Platform::map`]. Undoes its own part when it fails half-way.
    pub fn map(&self, root: Root, va: Va, gpa: Gpa, len: u64, access: Access) -> Result<(), PlatformError> {
        check_va(va, len)?;
        if gpa.checked_add(len).is_none_or(|end| end > self.arena.len()) || !gpa.is_multiple_of(PAGE_SIZE) {
            return Err(PlatformError::OutOfArena { gpa, len });
        }
        let mut pool = self.lock();
        let mut done = 0;
        while done < len {
            match self.map_some(&mut pool, root, va + done, gpa + done, len - done, access) {
                Ok(n) => done += n,
                Err((n, e)) => {
                    self.unmap_locked(&mut pool, root, va, done + n)?;
                    return Err(e);
                }
            }
        }
        Ok(())
    }

    /// Maps as much as one table holds; on failure tells how much of it was mapped.
    fn map_some(
        &self,
        pool: &mut Pool,
        root: Root,
        va: Va,
        gpa: Gpa,
        len: u64,
        access: Access,
    ) -> Result<u64, (u64, PlatformError)> {
        let none = |e| (0, e);
        let Ok(directory) = self.directory(root, va, Some(pool)).map_err(none)? else {
            return Err((0, present()));
        };
        let at = directory + index(va, 2) * 8;
        let mut entry = self.get(at).map_err(none)?;
        if entry == 0 {
            let aligned =
                va.is_multiple_of(LARGE_PAGE) && gpa.is_multiple_of(LARGE_PAGE) && len >= LARGE_PAGE;
            if aligned && !self.kvm.shadow() {
                self.set(at, leaf(gpa, access) | LARGE).map_err(none)?;
                return Ok(LARGE_PAGE);
            }
            entry = self.take_table(pool).map_err(none)? | TABLE;
            self.set(at, entry).map_err(none)?;
        }
        if entry & LARGE != 0 {
            return Err((0, present()));
        }
        let table = entry & ADDRESS;
        let mut done = 0;
        for i in index(va, 1)..ENTRIES {
            if done == len {
                break;
            }
            let slot = self.arena.entry(table + i * 8).map_err(|e| (done, e))?;
            if slot.load(Ordering::Acquire) & PRESENT != 0 {
                return Err((done, present()));
            }
            slot.store(leaf(gpa + done, access), Ordering::Release);
            done += PAGE_SIZE;
        }
        Ok(done)
    }

    /// Unmaps a range; see [`guest::platform::Platform::unmap`].
    pub fn unmap(&self, root: Root, va: Va, len: u64) -> Result<(), PlatformError> {
        check_va(va, len)?;
        self.unmap_locked(&mut self.lock(), root, va, len)
    }

    fn unmap_locked(&self, pool: &mut Pool, root: Root, va: Va, len: u64) -> Result<(), PlatformError> {
        self.change(pool, root, va, len, |_| 0)
    }

    /// Changes rights in a range; see [`guest::platform::Platform::protect`].
    pub fn protect(&self, root: Root, va: Va, len: u64, access: Access) -> Result<(), PlatformError> {
        check_va(va, len)?;
        self.change(&mut self.lock(), root, va, len, |old| leaf(old & ADDRESS, access) | old & LARGE)
    }

    /// Changes rights in many ranges; see [`guest::platform::Platform::protect_all`].
    pub fn protect_all(&self, root: Root, ranges: &[(Va, u64, Access)]) -> Result<(), PlatformError> {
        let mut pool = self.lock();
        let mut stale = Stale::default();
        let result = ranges.iter().try_for_each(|(va, len, access)| {
            check_va(*va, *len)?;
            let new = |old: u64| leaf(old & ADDRESS, *access) | old & LARGE;
            self.rewrite(&mut pool, root, *va, va + len, &new, &mut stale)
        });
        self.invalidate(&mut stale)?;
        result
    }

    /// Rewrites every present leaf of a range with `new`, splitting large ones at the edges, and invalidates.
    fn change(
        &self,
        pool: &mut Pool,
        root: Root,
        va: Va,
        len: u64,
        new: impl Fn(u64) -> u64,
    ) -> Result<(), PlatformError> {
        let mut stale = Stale::default();
        let result = self.rewrite(pool, root, va, va + len, &new, &mut stale);
        self.invalidate(&mut stale)?;
        result
    }

    fn invalidate(&self, stale: &mut Stale) -> Result<(), PlatformError> {
        if !self.kvm.live() {
            return Ok(());
        }
        stale.join();
        for (gpa, n) in &stale.runs {
            self.arena.invalidate(*gpa, *n)?;
        }
        if stale.large && self.kvm.shadow() {
            self.kvm.full_zap()?;
        }
        Ok(())
    }

    fn rewrite(
        &self,
        pool: &mut Pool,
        root: Root,
        mut at: Va,
        end: Va,
        new: &impl Fn(u64) -> u64,
        stale: &mut Stale,
    ) -> Result<(), PlatformError> {
        while at < end {
            let directory = match self.directory(root, at, None)? {
                Ok(table) => table,
                Err(skip) => {
                    at = at.saturating_add(skip);
                    continue;
                }
            };
            let slot = directory + index(at, 2) * 8;
            let mut entry = self.get(slot)?;
            let next = (at - at % LARGE_PAGE + LARGE_PAGE).min(end);
            if entry & PRESENT == 0 {
                at = next;
                continue;
            }
            if entry & LARGE != 0 {
                let target = new(entry);
                if next - at == LARGE_PAGE || target == entry {
                    if target != entry {
                        self.set(slot, target)?;
                        if !is_upgrade(entry, target) {
                            stale.add(entry & ADDRESS, LARGE_PAGE);
                            stale.large = true;
                        }
                    }
                    at = next;
                    continue;
                }
                entry = self.split(pool, slot, entry, stale)?;
            }
            let table = entry & ADDRESS;
            while at < next {
                let slot = self.arena.entry(table + index(at, 1) * 8)?;
                let old = slot.load(Ordering::Acquire);
                if old & PRESENT != 0 {
                    let target = new(old);
                    if target != old {
                        slot.store(target, Ordering::Release);
                        if !is_upgrade(old, target) {
                            stale.add(old & ADDRESS, PAGE_SIZE);
                        }
                    }
                }
                at += PAGE_SIZE;
            }
        }
        Ok(())
    }

    /// Replaces a 2 MiB leaf by a table of the same translations.
    fn split(&self, pool: &mut Pool, slot: Gpa, old: u64, stale: &mut Stale) -> Result<u64, PlatformError> {
        let table = self.take_table(pool)?;
        for i in 0..ENTRIES {
            self.set(table + i * 8, (old & !LARGE) + i * PAGE_SIZE)?;
        }
        self.set(slot, table | TABLE)?;
        stale.add(old & ADDRESS, LARGE_PAGE);
        stale.large = true;
        Ok(table | TABLE)
    }

    /// What user mode reaches at an address: the guest-physical address and the access.
    pub fn translate(&self, root: Root, va: Va) -> Result<Option<(Gpa, Access)>, PlatformError> {
        let _pool = self.lock();
        let Ok(directory) = self.directory(root, va, None)? else { return Ok(None) };
        let mut entry = self.get(directory + index(va, 2) * 8)?;
        let mut size = LARGE_PAGE;
        if entry & PRESENT != 0 && entry & LARGE == 0 {
            entry = self.get((entry & ADDRESS) + index(va, 1) * 8)?;
            size = PAGE_SIZE;
        }
        if entry & PRESENT == 0 {
            return Ok(None);
        }
        let access = Access { write: entry & WRITE != 0, exec: entry & NO_EXEC == 0 };
        Ok(Some(((entry & ADDRESS) + va % size, access)))
    }

    /// Calls `f` with address, entry bits and size in bytes of every present user leaf of a root; a returned value replaces a 4 KiB
    /// entry's Accessed and Dirty bits. Only for use while no virtual machine runs.
    pub fn visit(
        &self,
        root: Root,
        mut f: impl FnMut(Va, Gpa, u64, u64) -> Option<u64>,
    ) -> Result<(), PlatformError> {
        let _pool = self.lock();
        let mut at = 0;
        while at < TASK_SIZE {
            let directory = match self.directory(root, at, None)? {
                Ok(table) => table,
                Err(skip) => {
                    at += skip;
                    continue;
                }
            };
            let entry = self.get(directory + index(at, 2) * 8)?;
            if entry & PRESENT != 0 && entry & LARGE != 0 {
                let _ = f(at, entry & ADDRESS, entry, LARGE_PAGE);
            } else if entry & PRESENT != 0 {
                for i in 0..ENTRIES {
                    let slot = self.arena.entry((entry & ADDRESS) + i * 8)?;
                    let old = slot.load(Ordering::Acquire);
                    if old & PRESENT == 0 {
                        continue;
                    }
                    if let Some(bits) = f(at + i * PAGE_SIZE, old & ADDRESS, old, PAGE_SIZE) {
                        let keep = old & !(ACCESSED | DIRTY);
                        slot.store(keep | bits & (ACCESSED | DIRTY), Ordering::Release);
                    }
                }
            }
            at += LARGE_PAGE;
        }
        Ok(())
    }
}

fn leaf(gpa: Gpa, access: Access) -> u64 {
    let write = if access.write { WRITE | DIRTY } else { 0 };
    let exec = if access.exec { 0 } else { NO_EXEC };
    gpa | PRESENT | USER | ACCESSED | write | exec
}

/// Whether the new leaf allows everything that the old one did, on the same target.
fn is_upgrade(old: u64, new: u64) -> bool {
    new & PRESENT != 0
        && old & ADDRESS == new & ADDRESS
        && (old & WRITE == 0 || new & WRITE != 0)
        && (old & NO_EXEC != 0 || new & NO_EXEC == 0)
}

fn index(va: Va, level: u32) -> u64 {
    va >> (12 + 9 * (level - 1)) & 511
}

fn span(level: u32) -> u64 {
    PAGE_SIZE << (9 * (level - 1))
}

fn check_va(va: Va, len: u64) -> Result<(), PlatformError> {
    let ok = va.is_multiple_of(PAGE_SIZE)
        && len.is_multiple_of(PAGE_SIZE)
        && va.checked_add(len).is_some_and(|end| end <= TASK_SIZE);
    if ok { Ok(()) } else { Err(PlatformError::OutOfArena { gpa: va, len }) }
}

fn present() -> PlatformError {
    PlatformError::Host {
        what: "map over a guest page that is mapped already",
        source: std::io::Error::from_raw_os_error(libc::EEXIST),
    }
}

#[cfg(test)]
mod tests;

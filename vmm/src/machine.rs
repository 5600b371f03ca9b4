//! The machine below one guest kernel: arena, page tables, the virtual machine, and what the host offers.
//!
//! Implements [`Platform`]. It lives as long as its sandbox; the virtual machine inside comes and goes (a paused sandbox has none, and
//! the child of a fork makes its own).

use crate::arena::Arena;
use crate::error::Error;
use crate::host::Host;
use crate::layout;
use crate::memslots::Memslots;
use crate::pagetable::PageTables;
use crate::probe::Facts;
use crate::signal;
use crate::stub;
use guest::platform::{Access, Gpa, Ns, Platform, PlatformError, Root, Va};
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

/// Where the `out` of a genuine stub exit leaves rip: not seen yet, at the instruction, or after it.
const RIP_UNKNOWN: u8 = 0;
const RIP_AT: u8 = 1;
const RIP_AFTER: u8 = 2;

/// See the module.
#[derive(Debug)]
pub struct Machine {
    // Dropped in this order: the virtual machine before the memory that it maps.
    pub(crate) slots: Arc<Memslots>,
    pub(crate) tables: PageTables,
    pub(crate) arena: Arc<Arena>,
    pub(crate) host: Host,
    /// Thread that runs each vCPU now, 0 for none.
    threads: Vec<AtomicI32>,
    /// Address space in which each vCPU runs guest code now, 0 for none.
    running: Vec<AtomicU64>,
    /// Descriptor that ends the first vCPU's sleep, -1 while there is none.
    pub(crate) wake: AtomicI32,
    out_rip: AtomicU8,
    /// Guest and host read the same counter.
    tsc_ok: AtomicBool,
    /// What the probe found; empty only while it runs.
    facts: OnceLock<Facts>,
    vdso: Vec<u8>,
}

impl Machine {
    /// Opens KVM, checks the host, reserves the arena, writes the machine's own pages, and tries the stub in a virtual machine that is
    /// gone when this returns. Children of a fork inherit what was found.
    pub fn new(arena_len: u64) -> Result<Arc<Self>, Error> {
        let host = Host::open()?;
        let arena = Arc::new(Arena::new(arena_len)?);
        let slots = Arc::new(Memslots::new(arena.clone(), !host.nested_paging));
        let tables = PageTables::new(arena.clone(), slots.clone())?;
        arena.write(layout::STUB, stub::code())?;
        let gdt: Vec<u8> = stub::gdt().iter().flat_map(|e| e.to_le_bytes()).collect();
        arena.write(layout::GDT, &gdt)?;
        arena.write(layout::IDT, &stub::idt())?;
        signal::install()?;
        let threads = (0..layout::MAX_VCPUS).map(|_| AtomicI32::new(0)).collect();
        let running = (0..layout::MAX_VCPUS).map(|_| AtomicU64::new(0)).collect();
        let tsc_ok = AtomicBool::new(host.invariant_tsc);
        let machine = Arc::new(Machine {
            slots,
            tables,
            arena,
            host,
            threads,
            running,
            wake: AtomicI32::new(-1),
            out_rip: AtomicU8::new(RIP_UNKNOWN),
            tsc_ok,
            facts: OnceLock::new(),
            vdso: crate::vdso::image(),
        });
        let _ = machine.facts.set(crate::probe::run(&machine)?);
        Ok(machine)
    }

    /// What the host offers.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// Guest page tables.
    pub fn tables(&self) -> &PageTables {
        &self.tables
    }

    /// Guest memory.
    pub fn arena(&self) -> &Arena {
        &self.arena
    }

    /// Whether a virtual machine exists now.
    pub fn is_live(&self) -> bool {
        self.slots.vm().is_some()
    }

    /// What the probe of this host found; `None` only while it runs.
    pub fn facts(&self) -> Option<Facts> {
        self.facts.get().copied()
    }

    /// Whether the system-call stub may run at privilege level 3 here.
    pub(crate) fn stub_at_user_level(&self) -> bool {
        self.facts().is_none_or(|f| f.syscall_level == 3)
    }

    /// Guest code must not use the counter after all.
    pub(crate) fn distrust_tsc(&self) {
        self.tsc_ok.store(false, Ordering::Relaxed);
    }

    /// vCPU `index` runs guest code in this address space from now on; `None`: it runs none.
    pub(crate) fn set_running(&self, index: usize, root: Option<Root>) {
        if let Some(slot) = self.running.get(index) {
            slot.store(root.map_or(0, |r| r.0), Ordering::Release);
        }
    }

    /// A genuine stub exit had rip this far behind the stub's entry (0 or [`stub::OUT_LEN`]).
    pub(crate) fn saw_out(&self, offset: u64) {
        let seen = if offset == 0 { RIP_AT } else { RIP_AFTER };
        if self.out_rip.load(Ordering::Relaxed) != seen {
            self.out_rip.store(seen, Ordering::Relaxed);
        }
    }

    /// Bytes to subtract from rip after an `out` of user code, to name the instruction itself.
    pub(crate) fn out_offset(&self) -> u64 {
        if self.out_rip.load(Ordering::Relaxed) == RIP_AFTER { stub::OUT_LEN } else { 0 }
    }

    /// Ends the first vCPU's sleep, the present one or the next. Guest code that it runs goes on.
    pub(crate) fn wake_first(&self) {
        let wake = self.wake.load(Ordering::Acquire);
        if wake >= 0 {
            signal::wake(wake);
        }
    }

    /// This thread runs vCPU `index` from now on (`on`) or no more.
    pub(crate) fn set_thread(&self, index: usize, on: bool) {
        if let Some(slot) = self.threads.get(index) {
            slot.store(if on { signal::gettid() } else { 0 }, Ordering::Release);
        }
    }
}

impl Platform for Machine {
    fn arena_len(&self) -> u64 {
        self.arena.len()
    }

    fn read(&self, gpa: Gpa, buf: &mut [u8]) -> Result<(), PlatformError> {
        self.arena.read(gpa, buf)
    }

    fn write(&self, gpa: Gpa, buf: &[u8]) -> Result<(), PlatformError> {
        self.arena.write(gpa, buf)
    }

    fn load_u32(&self, gpa: Gpa) -> Result<u32, PlatformError> {
        self.arena.load_u32(gpa)
    }

    fn compare_exchange_u32(&self, gpa: Gpa, old: u32, new: u32) -> Result<Result<u32, u32>, PlatformError> {
        self.arena.compare_exchange_u32(gpa, old, new)
    }

    fn ensure(&self, gpa: Gpa, len: u64) -> Result<(), PlatformError> {
        self.slots.ensure(gpa, len)
    }

    fn attach_file(
        &self,
        gpa: Gpa,
        len: u64,
        file: BorrowedFd<'_>,
        offset: u64,
        shared: bool,
    ) -> Result<(), PlatformError> {
        self.arena.attach_file(gpa, len, file, offset, shared)
    }

    fn detach_file(&self, gpa: Gpa, len: u64) -> Result<(), PlatformError> {
        self.arena.detach_file(gpa, len)
    }

    fn discard(&self, gpa: Gpa, len: u64) -> Result<(), PlatformError> {
        self.arena.discard(gpa, len)
    }

    fn resident(&self) -> u64 {
        self.arena.resident()
    }

    fn create_root(&self) -> Result<Root, PlatformError> {
        self.tables.create_root()
    }

    fn destroy_root(&self, root: Root) -> bool {
        // The kernel ends no address space under a running task. Should it ever: keeping some pages is better than giving them to others.
        if self.running.iter().any(|r| r.load(Ordering::Acquire) == root.0) {
            tracing::error!(root = root.0, "an address space that is in use is not destroyed");
            return false;
        }
        self.tables.destroy_root(root);
        true
    }

    fn map(&self, root: Root, va: Va, gpa: Gpa, len: u64, access: Access) -> Result<(), PlatformError> {
        self.tables.map(root, va, gpa, len, access)
    }

    fn unmap(&self, root: Root, va: Va, len: u64) -> Result<(), PlatformError> {
        self.tables.unmap(root, va, len)
    }

    fn protect(&self, root: Root, va: Va, len: u64, access: Access) -> Result<(), PlatformError> {
        self.tables.protect(root, va, len, access)
    }

    fn protect_all(&self, root: Root, ranges: &[(Va, u64, Access)]) -> Result<(), PlatformError> {
        self.tables.protect_all(root, ranges)
    }

    fn monotonic(&self) -> Ns {
        now()
    }

    fn realtime(&self) -> Ns {
        let t = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
        ns(t.tv_sec, t.tv_nsec)
    }

    fn tsc(&self) -> u64 {
        crate::host::rdtsc()
    }

    fn tsc_khz(&self) -> Option<u64> {
        self.facts()?.tsc_khz.filter(|_| self.tsc_ok.load(Ordering::Relaxed))
    }

    fn tsc_aux_is_vcpu(&self) -> bool {
        self.facts().is_some_and(|f| f.tsc_aux)
    }

    fn entropy(&self, buf: &mut [u8]) {
        let mut done = 0;
        while done < buf.len() {
            let rest = buf.get_mut(done..).unwrap_or_default();
            // The only errors are EINTR and, before the host has any entropy, none at all: the call waits.
            done += rustix::rand::getrandom(rest, rustix::rand::GetRandomFlags::empty()).unwrap_or(0);
        }
    }

    fn vdso_image(&self) -> &[u8] {
        &self.vdso
    }

    fn xstate_len(&self) -> usize {
        self.host.xstate_len
    }

    fn xcr0(&self) -> u64 {
        self.host.xcr0
    }

    fn kick(&self, index: usize) {
        let tid = self.threads.get(index).map_or(0, |t| t.load(Ordering::Acquire));
        if tid != 0 {
            signal::kick(tid);
        }
        if index == 0 {
            self.wake_first();
        }
    }
}

/// `CLOCK_MONOTONIC`, ns.
pub fn now() -> Ns {
    let t = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    ns(t.tv_sec, t.tv_nsec)
}

fn ns(sec: i64, nsec: i64) -> Ns {
    u64::try_from(sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(nsec).unwrap_or(0)
}

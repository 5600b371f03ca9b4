//! The virtual machine's descriptor and its memory slots.
//!
//! The arena is registered in chunks up to the highest address that was asked for, because a slot costs time by its size on
//! hosts that shadow page tables. Owns the KVM virtual machine while one exists; a paused sandbox has none.

use crate::arena::Arena;
use crate::error::Error;
use crate::lock::{Guard, Ordered, Rank};
use crate::pagetable::Translations;
use guest::platform::{Gpa, PAGE_SIZE, PlatformError};
use kvm_bindings::kvm_userspace_memory_region;
use kvm_ioctls::{Kvm, VmFd};
use std::io;
use std::sync::Arc;

/// Bytes of a memory slot.
pub const CHUNK: u64 = 128 << 20;
/// The slot whose removal makes KVM drop every translation. It lies beyond the arena and nothing maps it.
const ZAP_SLOT: u32 = 500;

#[derive(Debug, Default)]
struct State {
    /// Chunks to register.
    wanted: u64,
    /// Chunks that the machine has.
    registered: u64,
    vm: Option<Arc<VmFd>>,
}

/// See the module.
#[derive(Debug)]
pub struct Memslots {
    arena: Arc<Arena>,
    shadow: bool,
    state: Ordered<State>,
}

impl Memslots {
    /// No machine yet; the first chunk is always wanted.
    pub fn new(arena: Arc<Arena>, shadow: bool) -> Self {
        Memslots { arena, shadow, state: Ordered::new(Rank::Slots, State { wanted: 1, ..State::default() }) }
    }

    fn lock(&self) -> Guard<'_, State> {
        self.state.lock()
    }

    /// Registers slots up to the end of a range (at once when there is a machine).
    pub fn ensure(&self, gpa: Gpa, len: u64) -> Result<(), PlatformError> {
        let end = gpa.checked_add(len).filter(|e| *e <= self.arena.len());
        let end = end.ok_or(PlatformError::OutOfArena { gpa, len })?;
        let mut state = self.lock();
        state.wanted = state.wanted.max(end.div_ceil(CHUNK));
        self.register(&mut state)
    }

    fn register(&self, state: &mut State) -> Result<(), PlatformError> {
        let Some(vm) = state.vm.clone() else { return Ok(()) };
        while state.registered < state.wanted {
            let gpa = state.registered * CHUNK;
            let slot = u32::try_from(state.registered).unwrap_or(u32::MAX);
            let slot = if slot >= ZAP_SLOT { slot + 1 } else { slot };
            let size = CHUNK.min(self.arena.len() - gpa);
            self.set(&vm, slot, gpa, self.arena.host(gpa).addr() as u64, size)?;
            state.registered += 1;
        }
        Ok(())
    }

    fn set(&self, vm: &VmFd, slot: u32, gpa: Gpa, host: u64, size: u64) -> Result<(), PlatformError> {
        let region = kvm_userspace_memory_region {
            slot,
            flags: 0,
            guest_phys_addr: gpa,
            memory_size: size,
            userspace_addr: host,
        };
        // SAFETY: the range belongs to the arena, which outlives the machine (both are owned by `Machine`, the machine's
        // descriptors are dropped first), and is only reached through volatile and atomic operations.
        unsafe { vm.set_user_memory_region(region) }.map_err(|e| PlatformError::Host {
            what: "register guest memory with KVM",
            source: io::Error::from_raw_os_error(e.errno()),
        })
    }

    /// Makes a new virtual machine without slots.
    pub fn create(&self, kvm: &Kvm) -> Result<Arc<VmFd>, Error> {
        let vm = loop {
            match kvm.create_vm() {
                Ok(vm) => break Arc::new(vm),
                Err(e) if e.errno() == libc::EINTR => {}
                Err(e) => return Err(Error::kvm("create a virtual machine")(e)),
            }
        };
        let mut state = self.lock();
        state.vm = Some(vm.clone());
        state.registered = 0;
        Ok(vm)
    }

    /// Registers all wanted slots with the machine.
    pub fn fill(&self) -> Result<(), Error> {
        Ok(self.register(&mut self.lock())?)
    }

    /// Lets go of the virtual machine. It ends when the vCPUs are dropped too.
    pub fn forget(&self) {
        let mut state = self.lock();
        state.vm = None;
        state.registered = 0;
    }

    /// The machine, if there is one.
    pub fn vm(&self) -> Option<Arc<VmFd>> {
        self.lock().vm.clone()
    }
}

impl Translations for Memslots {
    fn live(&self) -> bool {
        self.lock().vm.is_some()
    }

    fn shadow(&self) -> bool {
        self.shadow
    }

    /// Removing any slot makes KVM drop all translations and its own tables of the whole machine, and every vCPU reload
    /// its root: so a slot that nobody uses is added and removed.
    fn full_zap(&self) -> Result<(), PlatformError> {
        let state = self.lock();
        let Some(vm) = state.vm.clone() else { return Ok(()) };
        let gpa = self.arena.len().next_multiple_of(CHUNK) + CHUNK;
        let host = self.arena.host(0).addr() as u64;
        self.set(&vm, ZAP_SLOT, gpa, host, PAGE_SIZE)?;
        self.set(&vm, ZAP_SLOT, gpa, 0, 0)
    }
}

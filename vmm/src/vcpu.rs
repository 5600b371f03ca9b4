//! One virtual processor: entering guest user mode with a task's registers, and telling what brought it back.
//!
//! The registers travel in the page shared with KVM, so that an entry and an exit are one system call. A vCPU always enters at
//! privilege level 3. What it comes back with is hostile: an exit counts as the stub's only when rip, port and (for an
//! exception) stack and code segment are exactly those of a genuine one; all else is [`Exit::Illegal`].

use crate::error::Error;
use crate::layout;
use crate::machine::Machine;
use crate::stub;
use guest::platform::{Exit, Regs, Root};
use kvm_bindings::{
    KVM_SYNC_X86_REGS, KVM_SYNC_X86_SREGS, KVM_VCPUEVENT_VALID_SHADOW, kvm_regs, kvm_segment, kvm_sregs,
    kvm_vcpu_events,
};
use kvm_ioctls::{VcpuExit, VcpuFd, VmFd};
use registers::{refuse, store};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

mod registers;
mod setup;
mod xstate;

/// Flags that a program may have: CF PF AF ZF SF TF DF OF AC ID.
const USER_FLAGS: u64 = 0x0024_0dd5;
/// Always set, and interrupts enabled.
const FIXED_FLAGS: u64 = 0x202;
/// Parts of one access that KVM may hand out one by one (8 bytes each; the longest is a vector register), and some.
const ABANDON_ROUNDS: u32 = 64;
/// Until KVM is asked again for what the host refused it, and how often: in all far less than the time of a request, which would end first.
const SHORTAGE_PAUSE: Duration = Duration::from_millis(1);
const SHORTAGE_ROUNDS: u32 = 100;
const SHORTAGE: &str = "the host refuses KVM a thread that a virtual machine needs: allow more processes (pids.max of the control group, \
                        kernel.threads-max)";

/// One virtual processor. See the module.
#[derive(Debug)]
pub struct KvmVcpu {
    index: usize,
    fd: VcpuFd,
    machine: Arc<Machine>,
    /// `immediate_exit` in the shared page.
    immediate: NonNull<AtomicU8>,
    /// System registers of a freshly set up vCPU.
    base: kvm_sregs,
    /// The shared registers are not what the last exit left (first entry, or after a triple fault).
    fresh: bool,
    /// The rip of the last memory access that the host could not resolve.
    bad_at: Option<u64>,
    /// Entries for which the host was short of something: KVM asks for it at the first one only.
    short: u32,
    /// Entries into guest mode.
    pub exits: u64,
}

// SAFETY: the pointer is into the shared page that `fd` owns; it moves with it.
unsafe impl Send for KvmVcpu {}

/// What KVM_RUN came back with, without the borrows.
enum Back {
    Out(u16),
    Other,
    /// The instruction is half done and KVM would complete it at the next entry.
    HalfDone,
    /// KVM could not go on with this instruction.
    Broken,
    /// A triple fault; KVM may have reset the vCPU.
    Reset,
    Fatal(String),
    Interrupted,
    /// The host is short of something that KVM needs, for now.
    NotYet,
    Fault,
}

impl KvmVcpu {
    /// Makes vCPU `index` of the machine's present virtual machine and sets it up for guest user mode.
    pub fn new(machine: Arc<Machine>, vm: &VmFd, index: usize) -> Result<Self, Error> {
        let host = machine.host();
        let mut fd = vm.create_vcpu(index as u64).map_err(Error::kvm("create a virtual processor"))?;
        let mut cpuid = host.cpuid.clone();
        for e in cpuid.as_mut_slice() {
            match e.function {
                1 => e.ebx = e.ebx & 0x00ff_ffff | (index as u32) << 24,
                0xb | 0x1f => e.edx = index as u32,
                _ => {}
            }
        }
        fd.set_cpuid2(&cpuid).map_err(Error::kvm("set the processor features of a virtual processor"))?;
        let sregs = fd.get_sregs().map_err(Error::kvm("read a virtual processor's registers"))?;
        let base = setup::base_sregs(sregs, index, host.pku);
        setup::program(&fd, &base, host, index)?;
        if host.invariant_tsc && !setup::zero_tsc_offset(&fd) {
            machine.distrust_tsc();
        }
        let top = stub::stack_top(index);
        machine.arena().write(layout::tss(index), &stub::task_state(top, machine.stub_at_user_level()))?;
        machine.arena().entry(layout::stack_top(index) - 8)?.store(0, Ordering::Relaxed);
        let run = fd.get_kvm_run();
        run.kvm_valid_regs = u64::from(KVM_SYNC_X86_REGS | KVM_SYNC_X86_SREGS);
        run.s.regs.sregs = base;
        let immediate = NonNull::from(&mut run.immediate_exit).cast::<AtomicU8>();
        Ok(KvmVcpu { index, fd, machine, immediate, base, fresh: true, bad_at: None, short: 0, exits: 0 })
    }

    /// This thread runs the vCPU from now on: signals and kicks reach it.
    pub fn attach(&self) {
        // SAFETY: the shared page lives as long as `self.fd`; `detach` is called before this is dropped.
        unsafe { crate::signal::attach(self.immediate.as_ptr()) };
        self.machine.set_thread(self.index, true);
    }

    /// This thread does not run the vCPU any more.
    pub fn detach(&self) {
        self.machine.set_thread(self.index, false);
        crate::signal::detach();
    }

    fn flag(&self) -> &AtomicU8 {
        // SAFETY: points into the shared page that `self.fd` keeps mapped; the kernel only reads it.
        unsafe { self.immediate.as_ref() }
    }

    /// The descriptor, for statistics and pre-faulting.
    pub(crate) fn fd(&self) -> &VcpuFd {
        &self.fd
    }

    /// Runs user code with these registers in an address space until the next exit; the registers are then the task's
    /// at that point.
    pub fn run(&mut self, regs: &mut Regs, root: Root) -> Result<Exit, Error> {
        if let Some(exit) = refuse(regs) {
            return Ok(exit);
        }
        self.machine.set_running(self.index, Some(root));
        let result = self.run_in(regs, root);
        self.machine.set_running(self.index, None);
        result
    }

    fn run_in(&mut self, regs: &mut Regs, root: Root) -> Result<Exit, Error> {
        self.load(regs, root);
        loop {
            let generation = self.machine.arena().generation();
            self.exits += 1;
            let back = self.enter();
            let state = self.fd.sync_regs_mut();
            let exit = match back {
                Back::Out(port) => self.classify(port, regs)?,
                Back::Other => {
                    store(regs, &state.regs, &state.sregs);
                    Exit::Illegal
                }
                Back::HalfDone => {
                    store(regs, &state.regs, &state.sregs);
                    self.abandon()?;
                    Exit::Illegal
                }
                Back::Broken => {
                    store(regs, &state.regs, &state.sregs);
                    self.fresh = true;
                    Exit::Illegal
                }
                Back::Reset => {
                    // The task keeps the registers that it entered with.
                    setup::program(&self.fd, &self.base, self.machine.host(), self.index)?;
                    self.fresh = true;
                    Exit::Illegal
                }
                Back::Fatal(why) => return Err(Error::VcpuStopped(why)),
                back @ (Back::Interrupted | Back::NotYet) => {
                    if matches!(back, Back::NotYet) {
                        self.short += 1;
                        if self.short > SHORTAGE_ROUNDS {
                            return Err(Error::VcpuStopped(SHORTAGE.into()));
                        }
                        std::thread::sleep(SHORTAGE_PAUSE);
                    }
                    self.flag().store(0, Ordering::Relaxed);
                    if !self.in_user_mode()? {
                        continue;
                    }
                    let state = self.fd.sync_regs_mut();
                    store(regs, &state.regs, &state.sregs);
                    Exit::Preempted
                }
                Back::Fault => {
                    let rip = state.regs.rip;
                    let moved = self.machine.arena().generation() != generation || generation % 2 == 1;
                    if moved || self.bad_at != Some(rip) {
                        // Another thread changed memory meanwhile, or this is the first time: try again.
                        if !moved {
                            self.bad_at = Some(rip);
                        }
                        continue;
                    }
                    store(regs, &state.regs, &state.sregs);
                    self.fresh = true;
                    Exit::BadMemory
                }
            };
            self.bad_at = None;
            return Ok(exit);
        }
    }

    fn enter(&mut self) -> Back {
        match self.fd.run() {
            Ok(VcpuExit::IoOut(port, _)) => Back::Out(port),
            Ok(VcpuExit::IoIn(..) | VcpuExit::MmioRead(..) | VcpuExit::MmioWrite(..)) => Back::HalfDone,
            Ok(VcpuExit::X86Rdmsr(_) | VcpuExit::X86Wrmsr(_) | VcpuExit::Hypercall(_)) => Back::HalfDone,
            Ok(VcpuExit::InternalError) => Back::Broken,
            Ok(VcpuExit::Hlt | VcpuExit::Debug(_)) => Back::Other,
            Ok(VcpuExit::Shutdown) => Back::Reset,
            Ok(VcpuExit::MemoryFault { .. }) => Back::Fault,
            Ok(VcpuExit::Intr | VcpuExit::IrqWindowOpen) => Back::Interrupted,
            Ok(VcpuExit::FailEntry(reason, cpu)) => Back::Fatal(format!(
                "the processor refused to enter guest mode (reason {reason:#x} on CPU {cpu})"
            )),
            Ok(other) => Back::Fatal(format!("unknown exit {other:?}")),
            Err(e) if e.errno() == libc::EINTR => Back::Interrupted,
            // The machine's first entry starts a thread of KVM's (nx_huge_pages), which a limit on processes may refuse.
            Err(e) if e.errno() == libc::EAGAIN => Back::NotYet,
            Err(e) if matches!(e.errno(), libc::EFAULT | libc::EHWPOISON) => Back::Fault,
            Err(e) => {
                Back::Fatal(format!("KVM_RUN failed: {}", std::io::Error::from_raw_os_error(e.errno())))
            }
        }
    }

    fn load(&mut self, regs: &Regs, root: Root) {
        let base = self.base;
        let fresh = std::mem::take(&mut self.fresh);
        let state = self.fd.sync_regs_mut();
        state.regs = kvm_regs {
            rax: regs.rax,
            rbx: regs.rbx,
            rcx: regs.rcx,
            rdx: regs.rdx,
            rsi: regs.rsi,
            rdi: regs.rdi,
            rsp: regs.rsp,
            rbp: regs.rbp,
            r8: regs.r8,
            r9: regs.r9,
            r10: regs.r10,
            r11: regs.r11,
            r12: regs.r12,
            r13: regs.r13,
            r14: regs.r14,
            r15: regs.r15,
            rip: regs.rip,
            rflags: regs.rflags & USER_FLAGS | FIXED_FLAGS,
        };
        let before = state.sregs;
        let s = &mut state.sregs;
        if fresh {
            *s = base;
        }
        s.cs = base.cs;
        s.ss = base.ss;
        s.ds = base.ds;
        s.es = base.es;
        s.fs = kvm_segment { base: regs.fs_base, ..base.fs };
        s.gs = kvm_segment { base: regs.gs_base, ..base.gs };
        s.cr3 = root.0;
        s.cr2 = 0;
        s.interrupt_bitmap = [0; 4];
        // Where the stub runs at level 3 a system call leaves them as they were; not to set them makes an exit 2 % cheaper.
        let same = !fresh && *s == before;
        let run = self.fd.get_kvm_run();
        // KVM_RUN may have come back before KVM took what was loaded last: it clears the bits of what it takes.
        let taken = run.kvm_dirty_regs & u64::from(KVM_SYNC_X86_SREGS) == 0;
        let dirty = if same && taken { KVM_SYNC_X86_REGS } else { KVM_SYNC_X86_REGS | KVM_SYNC_X86_SREGS };
        run.kvm_dirty_regs = u64::from(dirty);
        if fresh {
            // Nothing may be left of an exception that was being delivered, or of the shadow of a `mov ss`: with it and a trap flag
            // of the next task VT-x would refuse to enter (SDM volume 3, checks on guest non-register state).
            let none = kvm_vcpu_events { flags: KVM_VCPUEVENT_VALID_SHADOW, ..Default::default() };
            let _ = self.fd.set_vcpu_events(&none);
        }
    }

    /// Tells what an `out` meant and stores the registers of the task at the trap.
    fn classify(&mut self, port: u16, regs: &mut Regs) -> Result<Exit, Error> {
        let state = self.fd.sync_regs_mut();
        let (r, s) = (&state.regs, &state.sregs);
        store(regs, r, s);
        if port == stub::PORT_SYSCALL {
            let offset = r.rip.wrapping_sub(stub::syscall_entry());
            if offset == 0 || offset == stub::OUT_LEN {
                self.machine.saw_out(offset);
                regs.rip = r.rcx;
                // The caller's own at level 0; at level 3, or after a jump to the stub, whatever is in r11.
                regs.rflags = r.r11 & USER_FLAGS | FIXED_FLAGS;
                return Ok(Exit::Syscall);
            }
        } else if let Some(vector) = port.checked_sub(stub::PORT_EXCEPTION).filter(|v| *v < 32) {
            let vector = vector as u8;
            let offset = r.rip.wrapping_sub(stub::exception_entry(vector));
            let pushed = if stub::has_error_code(vector) { 48 } else { 40 };
            let top = stub::stack_top(self.index);
            let genuine = (offset == 0 || offset == stub::OUT_LEN)
                && s.cs.selector == stub::KERNEL_CS
                && r.rsp == top - pushed;
            if genuine {
                // From below: error code (some vectors), rip, cs, rflags, rsp, ss.
                let top = stub::gpa_of_window(top);
                let word =
                    |below: u64| self.machine.arena().entry(top - below).map(|e| e.load(Ordering::Acquire));
                if word(32)? & 3 != 3 {
                    // An exception of the stub itself, which no program can cause: there is no task state to go on with.
                    self.fresh = true;
                    return Ok(Exit::Illegal);
                }
                let error = if pushed == 48 { word(48)? } else { 0 };
                regs.rip = word(40)?;
                regs.rflags = word(24)?;
                regs.rsp = word(16)?;
                let cr2 = if vector == 14 { s.cr2 } else { 0 };
                // Nobody has a page in the upper half. Where the host's kernel shares the tables, its pages (present or with reserved
                // bits set) would show here: only what kind of access it was is kept (write, user, fetch).
                let upper = vector == 14 && cr2 >> 47 != 0;
                let error = if upper { error & 0x16 } else { error };
                return Ok(Exit::Exception { vector, error, cr2 });
            }
        }
        regs.rip = regs.rip.wrapping_sub(self.machine.out_offset());
        Ok(Exit::Illegal)
    }

    /// Whether an interrupted vCPU is in user code with nothing in flight, so that another task may have it.
    fn in_user_mode(&mut self) -> Result<bool, Error> {
        let state = self.fd.sync_regs_mut();
        let stub_page = layout::window(layout::STUB)..stub::exception_entry(255) + 8;
        if state.sregs.cs.selector & 3 != 3 || stub_page.contains(&state.regs.rip) {
            return Ok(false);
        }
        let events = self.fd.get_vcpu_events().map_err(Error::kvm("read a virtual processor's events"))?;
        self.fresh |= events.interrupt.shadow != 0;
        Ok(events.exception.injected == 0 && events.exception.pending == 0)
    }

    /// Lets KVM finish an instruction that it emulates, without running on; the registers are replaced afterwards.
    fn abandon(&mut self) -> Result<(), Error> {
        for _ in 0..ABANDON_ROUNDS {
            // A repeated string instruction would ask for its next element: let this one be its last.
            self.fd.sync_regs_mut().regs.rcx = 1;
            self.fd.get_kvm_run().kvm_dirty_regs = u64::from(KVM_SYNC_X86_REGS);
            self.flag().store(1, Ordering::Relaxed);
            let back = self.enter();
            self.flag().store(0, Ordering::Relaxed);
            match back {
                Back::Fatal(why) => return Err(Error::VcpuStopped(why)),
                Back::HalfDone => {}
                Back::Interrupted | Back::NotYet => return Ok(()),
                _ => {
                    self.fresh = true;
                    return Ok(());
                }
            }
        }
        Err(Error::VcpuStopped("an instruction that KVM emulates does not come to its end".into()))
    }

    /// The privilege level at which the last exit happened.
    pub(crate) fn stub_level(&mut self) -> u8 {
        (self.fd.sync_regs_mut().sregs.cs.selector & 3) as u8
    }

    /// Sets what `rdtscp` is to leave in ecx; false where KVM refuses.
    pub(crate) fn set_tsc_aux(&self, value: u32) -> bool {
        setup::set_tsc_aux(&self.fd, value)
    }

    /// The counter's frequency as this vCPU sees it, kHz.
    pub fn tsc_khz(&self) -> Option<u64> {
        self.fd.get_tsc_khz().ok().map(u64::from)
    }
}

#[cfg(test)]
mod hostile;
#[cfg(test)]
mod shared;
#[cfg(test)]
mod tests;

//! One virtual processor: entering guest user mode with a task's registers, and telling what brought it back.
//!
//! The registers travel in the page shared with KVM, so that an entry and an exit are one system call. A vCPU always enters at
//! privilege level 3. What it comes back with is hostile: an exit counts as the stub's only when rip, port and (for an
//! exception) stack and code segment are exactly those of a genuine one; all else is [`Exit::Illegal`].

use crate::error::Error;
use crate::layout;
use crate::machine::Machine;
use crate::stub;
use guest::platform::{BadXstate, Exit, Regs, Root, Vcpu};
use kvm_bindings::{
    KVM_SYNC_X86_REGS, KVM_SYNC_X86_SREGS, KVM_VCPU_TSC_CTRL, KVM_VCPU_TSC_OFFSET, Msrs, kvm_device_attr,
    kvm_msr_entry, kvm_regs, kvm_segment, kvm_sregs, kvm_vcpu_events, kvm_xcrs,
};
use kvm_ioctls::{VcpuExit, VcpuFd, VmFd};
use std::os::fd::AsRawFd;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

const MSR_TSC: u32 = 0x10;
const MSR_STAR: u32 = 0xc000_0081;
const MSR_LSTAR: u32 = 0xc000_0082;
const MSR_FMASK: u32 = 0xc000_0084;
const MSR_TSC_AUX: u32 = 0xc000_0103;

/// What `syscall` clears: trap, interrupt, direction, I/O privilege, nested task, alignment check.
const FMASK: u64 = 0x4_7700;
/// Flags that a program may have: CF PF AF ZF SF TF DF OF AC ID.
const USER_FLAGS: u64 = 0x0024_0dd5;
/// Always set, and interrupts enabled.
const FIXED_FLAGS: u64 = 0x202;

const CR0: u64 = 0x8005_0033; // PG AM WP NE ET MP PE
const CR4: u64 = 1 << 5 | 1 << 9 | 1 << 10 | 1 << 16 | 1 << 18; // PAE OSFXSR OSXMMEXCPT FSGSBASE OSXSAVE
const CR4_PKE: u64 = 1 << 22;
const EFER: u64 = 1 | 1 << 8 | 1 << 10 | 1 << 11; // SCE LME LMA NXE

const KVM_SET_DEVICE_ATTR: libc::c_ulong = 0x4018_aee1;
const KVM_GET_XSAVE: libc::c_ulong = 0x9000_aea4;
const KVM_GET_XSAVE2: libc::c_ulong = 0x9000_aecf;
const KVM_SET_XSAVE: libc::c_ulong = 0x5000_aea5;

const XSTATE_BV: usize = 512;
const MXCSR: usize = 24;
const MXCSR_MASK: usize = 28;
const PKRU_BIT: u64 = 1 << 9;
/// Linux's initial protection-key rights: only key 0 may be used.
const INIT_PKRU: u32 = 0x5555_5554;

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
    Reset,
    Fatal(String),
    Interrupted,
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
        let base = base_sregs(sregs, index, host.pku);
        fd.set_sregs(&base).map_err(Error::kvm("set a virtual processor's registers"))?;
        let mut xcrs = kvm_xcrs { nr_xcrs: 1, ..Default::default() };
        xcrs.xcrs[0].value = host.xcr0;
        fd.set_xcrs(&xcrs).map_err(Error::kvm("enable the extended state of a virtual processor"))?;
        set_msrs(&fd, index, host.tsc_aux)?;
        if host.tsc_khz.is_some() && !zero_tsc_offset(&fd) {
            machine.distrust_tsc();
        }
        let top = stub::stack_top(index);
        machine.arena().write(layout::tss(index), &stub::task_state(top))?;
        machine.arena().entry(layout::stack_top(index) - 8)?.store(0, Ordering::Relaxed);
        let run = fd.get_kvm_run();
        run.kvm_valid_regs = u64::from(KVM_SYNC_X86_REGS | KVM_SYNC_X86_SREGS);
        run.s.regs.sregs = base;
        let immediate = NonNull::from(&mut run.immediate_exit).cast::<AtomicU8>();
        Ok(KvmVcpu { index, fd, machine, immediate, base, fresh: true, bad_at: None, exits: 0 })
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

    /// The next entry returns at once.
    pub fn request_exit(&self) {
        self.flag().store(1, Ordering::Relaxed);
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
                Back::Reset => {
                    self.fresh = true;
                    Exit::Illegal
                }
                Back::Fatal(why) => return Err(Error::VcpuStopped(why)),
                Back::Interrupted => {
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
            Ok(VcpuExit::InternalError) => Back::HalfDone,
            Ok(VcpuExit::Hlt | VcpuExit::Debug(_)) => Back::Other,
            Ok(VcpuExit::Shutdown) => Back::Reset,
            Ok(VcpuExit::MemoryFault { .. }) => Back::Fault,
            Ok(VcpuExit::Intr | VcpuExit::IrqWindowOpen) => Back::Interrupted,
            Ok(VcpuExit::FailEntry(reason, cpu)) => Back::Fatal(format!(
                "the processor refused to enter guest mode (reason {reason:#x} on CPU {cpu})"
            )),
            Ok(other) => Back::Fatal(format!("unknown exit {other:?}")),
            Err(e) if matches!(e.errno(), libc::EINTR | libc::EAGAIN) => Back::Interrupted,
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
        let run = self.fd.get_kvm_run();
        run.kvm_dirty_regs = u64::from(KVM_SYNC_X86_REGS | KVM_SYNC_X86_SREGS);
        if fresh {
            // Nothing may be left of an exception that was being delivered when the vCPU was reset.
            let _ = self.fd.set_vcpu_events(&kvm_vcpu_events::default());
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
                regs.rflags = r.r11;
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
                let error = if pushed == 48 { word(48)? } else { 0 };
                regs.rip = word(40)?;
                regs.rflags = word(24)?;
                regs.rsp = word(16)?;
                let cr2 = if vector == 14 { s.cr2 } else { 0 };
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
        Ok(events.exception.injected == 0 && events.exception.pending == 0)
    }

    /// Lets KVM finish an instruction that it emulates, without running on; the registers are replaced afterwards.
    fn abandon(&mut self) -> Result<(), Error> {
        let run = self.fd.get_kvm_run();
        run.kvm_dirty_regs = 0;
        self.flag().store(1, Ordering::Relaxed);
        let back = self.enter();
        self.flag().store(0, Ordering::Relaxed);
        match back {
            Back::Fatal(why) => Err(Error::VcpuStopped(why)),
            _ => Ok(()),
        }
    }

    fn xsave(&self, request: libc::c_ulong, image: &mut [u32]) -> i32 {
        debug_assert!(image.len() * 4 >= self.machine.host().kvm_xsave_len);
        // SAFETY: KVM transfers as many bytes as KVM_CAP_XSAVE2 told (4096 where it is missing), and the buffer has them.
        unsafe { libc::ioctl(self.fd.as_raw_fd(), request, image.as_mut_ptr()) }
    }

    fn set_xsave(&self, image: &[u8]) -> i32 {
        let mut words = vec![0u32; self.machine.host().kvm_xsave_len.div_ceil(4)];
        for (to, from) in words.iter_mut().zip(image.chunks_exact(4)) {
            *to = u32::from_le_bytes([from[0], from[1], from[2], from[3]]);
        }
        self.xsave(KVM_SET_XSAVE, &mut words)
    }

    /// The counter's frequency as this vCPU sees it, kHz.
    pub fn tsc_khz(&self) -> Option<u64> {
        self.fd.get_tsc_khz().ok().map(u64::from)
    }
}

impl Vcpu for KvmVcpu {
    fn index(&self) -> usize {
        self.index
    }

    fn save_xstate(&mut self) -> Vec<u8> {
        let host = self.machine.host();
        let mut words = vec![0u32; host.kvm_xsave_len.div_ceil(4)];
        let request = if host.xsave2 { KVM_GET_XSAVE2 } else { KVM_GET_XSAVE };
        self.xsave(request, &mut words);
        let mut image: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
        image.truncate(host.xstate_len);
        image
    }

    fn load_xstate(&mut self, image: &[u8]) -> Result<(), BadXstate> {
        let host = self.machine.host();
        if image.len() != host.xstate_len || !valid_xstate(image, host.xcr0) {
            return Err(BadXstate);
        }
        if self.set_xsave(image) == 0 { Ok(()) } else { Err(BadXstate) }
    }

    fn reset_xstate(&mut self) {
        let host = self.machine.host();
        let mut image = vec![0; host.xstate_len];
        image[0..2].copy_from_slice(&0x37fu16.to_le_bytes());
        image[MXCSR..MXCSR + 4].copy_from_slice(&0x1f80u32.to_le_bytes());
        if host.pku {
            image[XSTATE_BV..XSTATE_BV + 8].copy_from_slice(&PKRU_BIT.to_le_bytes());
            image[host.pkru_at..host.pkru_at + 4].copy_from_slice(&INIT_PKRU.to_le_bytes());
        }
        self.set_xsave(&image);
    }
}

/// Whether the processor would take this XSAVE image in standard format (Intel SDM volume 1, 13.8).
fn valid_xstate(image: &[u8], xcr0: u64) -> bool {
    let word =
        |at: usize| image.get(at..at + 8).map_or(0, |b| u64::from_le_bytes(b.try_into().unwrap_or_default()));
    let half =
        |at: usize| image.get(at..at + 4).map_or(0, |b| u32::from_le_bytes(b.try_into().unwrap_or_default()));
    let mask = match half(MXCSR_MASK) {
        0 => 0xffbf,
        m => m & 0xffff,
    };
    word(XSTATE_BV) & !xcr0 == 0
        && image.get(XSTATE_BV + 8..XSTATE_BV + 64).is_some_and(|rest| rest.iter().all(|b| *b == 0))
        && half(MXCSR) & !mask == 0
}

/// What becomes of registers that no processor would run.
fn refuse(regs: &Regs) -> Option<Exit> {
    if !canonical(regs.rip) || !canonical(regs.fs_base) || !canonical(regs.gs_base) {
        return Some(Exit::Illegal);
    }
    // The upper half belongs to nobody: the fetch faults everywhere alike, without asking the host.
    if regs.rip > 0x7fff_ffff_ffff {
        return Some(Exit::Exception { vector: 14, error: 0x14, cr2: regs.rip });
    }
    None
}

fn canonical(x: u64) -> bool {
    (x.cast_signed() << 16 >> 16).cast_unsigned() == x
}

fn store(regs: &mut Regs, r: &kvm_regs, s: &kvm_sregs) {
    *regs = Regs {
        rax: r.rax,
        rbx: r.rbx,
        rcx: r.rcx,
        rdx: r.rdx,
        rsi: r.rsi,
        rdi: r.rdi,
        rbp: r.rbp,
        rsp: r.rsp,
        r8: r.r8,
        r9: r.r9,
        r10: r.r10,
        r11: r.r11,
        r12: r.r12,
        r13: r.r13,
        r14: r.r14,
        r15: r.r15,
        rip: r.rip,
        rflags: r.rflags,
        fs_base: s.fs.base,
        gs_base: s.gs.base,
    };
}

fn base_sregs(mut s: kvm_sregs, index: usize, pku: bool) -> kvm_sregs {
    let flat = kvm_segment { base: 0, limit: 0xffff_ffff, present: 1, s: 1, g: 1, ..Default::default() };
    let code = kvm_segment { selector: stub::USER_CS, type_: 11, dpl: 3, l: 1, ..flat };
    let data = kvm_segment { selector: stub::USER_DS, type_: 3, dpl: 3, db: 1, ..flat };
    s.cs = code;
    (s.ss, s.ds, s.es, s.fs, s.gs) = (data, data, data, data, data);
    s.tr = kvm_segment {
        base: layout::window(layout::tss(index)),
        limit: stub::TSS_LEN as u32 - 1,
        selector: stub::TSS,
        type_: 11,
        present: 1,
        ..Default::default()
    };
    s.gdt.base = layout::window(layout::GDT);
    s.gdt.limit = 8 * 8 - 1;
    s.idt.base = layout::window(layout::IDT);
    s.idt.limit = 0xfff;
    s.cr0 = CR0;
    s.cr4 = CR4 | if pku { CR4_PKE } else { 0 };
    s.efer = EFER;
    s
}

fn set_msrs(fd: &VcpuFd, index: usize, tsc_aux: bool) -> Result<(), Error> {
    let msr = |index, data| kvm_msr_entry { index, data, ..Default::default() };
    let mut list = vec![
        msr(MSR_STAR, 0x1b << 48 | u64::from(stub::KERNEL_CS) << 32),
        msr(MSR_LSTAR, stub::syscall_entry()),
        msr(MSR_FMASK, FMASK),
    ];
    if tsc_aux {
        list.push(msr(MSR_TSC_AUX, index as u64));
    }
    let what = "set a virtual processor's model-specific registers";
    let msrs = Msrs::from_entries(&list)
        .map_err(|_| Error::Host { what, source: std::io::ErrorKind::InvalidInput.into() })?;
    let done = fd.set_msrs(&msrs).map_err(Error::kvm(what))?;
    if done != list.len() {
        return Err(Error::MissingCapability(
            "a settable syscall entry point (STAR, LSTAR, FMASK or TSC_AUX)",
        ));
    }
    Ok(())
}

/// Makes guest and host counter equal; false where KVM cannot.
fn zero_tsc_offset(fd: &VcpuFd) -> bool {
    let zero = 0u64;
    let attr = kvm_device_attr {
        group: KVM_VCPU_TSC_CTRL,
        attr: u64::from(KVM_VCPU_TSC_OFFSET),
        addr: (&raw const zero).addr() as u64,
        ..Default::default()
    };
    // SAFETY: KVM reads the attribute and the eight bytes that it points to; both outlive the call.
    if unsafe { libc::ioctl(fd.as_raw_fd(), KVM_SET_DEVICE_ATTR, &raw const attr) } == 0 {
        return true;
    }
    // Before Linux 5.16: the offset that results is zero up to the time between these two lines; the self-test bounds it.
    let entry = kvm_msr_entry { index: MSR_TSC, data: crate::host::rdtsc(), ..Default::default() };
    Msrs::from_entries(&[entry]).is_ok_and(|m| fd.set_msrs(&m).is_ok_and(|n| n == 1))
}

#[cfg(test)]
mod tests;

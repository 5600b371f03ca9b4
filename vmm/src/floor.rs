//! The floor: what the host alone charges for a fork with a VM in it, as a lower bound for any runtime of this design.
//!
//! A process with as many resident pages is forked; the child makes a VM with one vCPU and two memory slots, its guest reads and writes
//! as many pages for the first time and makes as many exits; then it tells the parent. No guest OS, no page-table changes, no
//! protocol, no library between: bare system calls.

use kvm_bindings::{
    KVM_SYNC_X86_REGS, KVM_SYNC_X86_SREGS, KVMIO, kvm_cpuid_entry2, kvm_msr_entry, kvm_regs, kvm_run,
    kvm_segment, kvm_sregs, kvm_userspace_memory_region, kvm_xcrs,
};
use std::ptr;

/// Errors of a measurement.
#[derive(Debug, thiserror::Error)]
pub enum FloorError {
    /// A system call failed.
    #[error("the floor could not be measured: {0}")]
    Host(&'static str, #[source] std::io::Error),
    /// The child did not come to its end.
    #[error("the floor could not be measured: the bare guest did not finish")]
    Child,
}

/// What the child repeats of a real instance.
#[derive(Clone, Copy, Debug, Default)]
pub struct Load {
    /// Resident pages of the process that is forked.
    pub resident_pages: u64,
    /// Exits to the VMM (system calls).
    pub exits: u64,
    /// Pages that the guest touches for the first time.
    pub touches: u64,
    /// How many of those it writes.
    pub writes: u64,
}

const GUEST_BASE: u64 = 0x4000_0000;
const KERNEL_LEN: usize = 2 << 20;
const CODE: u64 = 0x10_0000;
const MAX_CPUID: usize = 256;

// The guest: rdi = next page, rsi = pages to write, rdx = pages to read, r8 = exits. `out` at its end is LSTAR's target.
const GUEST: &[u8] = &[
    0x48, 0x85, 0xf6, // 00 test rsi,rsi
    0x74, 0x0f, // 03 jz 14
    0xc6, 0x07, 0x01, // 05 mov byte [rdi],1
    0x48, 0x81, 0xc7, 0x00, 0x10, 0x00, 0x00, // 08 add rdi,4096
    0x48, 0xff, 0xce, // 0f dec rsi
    0xeb, 0xec, // 12 jmp 00
    0x48, 0x85, 0xd2, // 14 test rdx,rdx
    0x74, 0x0e, // 17 jz 27
    0x8a, 0x07, // 19 mov al,[rdi]
    0x48, 0x81, 0xc7, 0x00, 0x10, 0x00, 0x00, // 1b add rdi,4096
    0x48, 0xff, 0xca, // 22 dec rdx
    0xeb, 0xed, // 25 jmp 14
    0x0f, 0x05, // 27 syscall
    0xeb, 0xfc, // 29 jmp 27
    0xe6, 0x10, // 2b out 0x10,al
];
const STUB: u64 = CODE + 0x2b;

const fn ioc(dir: u64, nr: u64, size: usize) -> u64 {
    (dir << 30) | ((size as u64) << 16) | ((KVMIO as u64) << 8) | nr
}

const CREATE_VM: u64 = ioc(0, 0x01, 0);
const GET_VCPU_MMAP_SIZE: u64 = ioc(0, 0x04, 0);
const GET_SUPPORTED_CPUID: u64 = ioc(3, 0x05, 8);
const CREATE_VCPU: u64 = ioc(0, 0x41, 0);
const SET_MEMORY: u64 = ioc(1, 0x46, size_of::<kvm_userspace_memory_region>());
const RUN: u64 = ioc(0, 0x80, 0);
const SET_REGS: u64 = ioc(1, 0x82, size_of::<kvm_regs>());
const GET_SREGS: u64 = ioc(2, 0x83, size_of::<kvm_sregs>());
const SET_SREGS: u64 = ioc(1, 0x84, size_of::<kvm_sregs>());
const SET_MSRS: u64 = ioc(1, 0x89, 8);
const SET_CPUID2: u64 = ioc(1, 0x90, 8);
const SET_XCRS: u64 = ioc(1, 0xa7, size_of::<kvm_xcrs>());

#[repr(C)]
struct Cpuid {
    nent: u32,
    padding: u32,
    entries: [kvm_cpuid_entry2; MAX_CPUID],
}

#[repr(C)]
struct Msrs {
    nmsrs: u32,
    pad: u32,
    entries: [kvm_msr_entry; 3],
}

struct Prepared {
    kvm: i32,
    run_len: usize,
    kernel: *mut u8,
    memory: *mut u8,
    memory_len: usize,
    cpuid: Box<Cpuid>,
}

fn check(result: i64, what: &'static str) -> Result<i64, FloorError> {
    if result < 0 { Err(FloorError::Host(what, std::io::Error::last_os_error())) } else { Ok(result) }
}

fn anonymous(len: usize) -> Result<*mut u8, FloorError> {
    // SAFETY: a fresh anonymous mapping at an address of the kernel's choice touches no existing memory.
    let at = unsafe {
        libc::mmap(
            ptr::null_mut(),
            len,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        )
    };
    if at == libc::MAP_FAILED {
        return Err(FloorError::Host("mmap", std::io::Error::last_os_error()));
    }
    Ok(at.cast())
}

/// Median time from the fork to the child's word, ns, over `runs` forks.
pub fn measure(load: Load, runs: usize) -> Result<u64, FloorError> {
    let prepared = Prepared::new(load)?;
    let mut samples = Vec::with_capacity(runs);
    for _ in 0..runs.max(1) {
        samples.push(prepared.fork_once(load)?);
    }
    samples.sort_unstable();
    Ok(samples[samples.len() / 2])
}

impl Prepared {
    fn new(load: Load) -> Result<Prepared, FloorError> {
        // SAFETY: opening a device by a constant path.
        let kvm = unsafe { libc::open(c"/dev/kvm".as_ptr(), libc::O_RDWR | libc::O_CLOEXEC) };
        check(kvm.into(), "open /dev/kvm")?;
        // SAFETY: this ioctl takes no argument.
        let run_len =
            check(unsafe { libc::ioctl(kvm, GET_VCPU_MMAP_SIZE, 0) }.into(), "KVM_GET_VCPU_MMAP_SIZE")?
                as usize;
        let zero = kvm_cpuid_entry2::default();
        let mut cpuid = Box::new(Cpuid { nent: MAX_CPUID as u32, padding: 0, entries: [zero; MAX_CPUID] });
        // SAFETY: the structure has `nent` entries behind its header.
        let got = unsafe { libc::ioctl(kvm, GET_SUPPORTED_CPUID, ptr::from_mut(&mut *cpuid)) };
        check(got.into(), "KVM_GET_SUPPORTED_CPUID")?;
        let pages = load.resident_pages.max(load.touches).max(1) as usize;
        let memory_len = (pages * 4096).next_multiple_of(2 << 20);
        let (kernel, memory) = (anonymous(KERNEL_LEN)?, anonymous(memory_len)?);
        // SAFETY: both mappings are ours and long enough: tables below 0x6000, code at CODE, `pages` pages of memory.
        unsafe {
            for page in 0..pages {
                memory.add(page * 4096).write(1);
            }
            let table = |gpa: u64| kernel.add(gpa as usize).cast::<u64>();
            table(0x1000).write(0x2000 | 7);
            table(0x2000).write(0x3000 | 7);
            table(0x2000).add(1).write(0x4000 | 7);
            table(0x3000).write(0xe7);
            for i in 0..(memory_len >> 21).min(512) {
                table(0x4000).add(i).write((GUEST_BASE + ((i as u64) << 21)) | 0xe7);
            }
            ptr::copy_nonoverlapping(GUEST.as_ptr(), kernel.add(CODE as usize), GUEST.len());
        }
        Ok(Prepared { kvm, run_len, kernel, memory, memory_len, cpuid })
    }

    fn fork_once(&self, load: Load) -> Result<u64, FloorError> {
        let mut pipe = [0; 2];
        // SAFETY: the array has room for both descriptors.
        check(unsafe { libc::pipe2(pipe.as_mut_ptr(), libc::O_CLOEXEC) }.into(), "pipe2")?;
        let start = now();
        // SAFETY: the child calls only async-signal-safe functions (bare system calls) and _exit.
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            // SAFETY: we are the child; every pointer used is to memory prepared before the fork.
            unsafe {
                let done = self.child(load);
                libc::write(pipe[1], [done].as_ptr().cast(), 1);
                libc::_exit(0);
            }
        }
        let mut byte = [0_u8];
        // SAFETY: the descriptors are ours and the buffer has one byte.
        let (got, end) = unsafe {
            libc::close(pipe[1]);
            let got = if pid > 0 { libc::read(pipe[0], byte.as_mut_ptr().cast(), 1) } else { -1 };
            let end = now();
            libc::close(pipe[0]);
            if pid > 0 {
                libc::waitpid(pid, ptr::null_mut(), 0);
            }
            (got, end)
        };
        check(pid.into(), "fork")?;
        if got == 1 && byte[0] == 1 { Ok(end - start) } else { Err(FloorError::Child) }
    }

    /// Makes the VM and runs the load; 1 when all went well.
    ///
    /// # Safety
    /// Only in a fresh child of a fork: the mappings are this process's copies.
    unsafe fn child(&self, load: Load) -> u8 {
        // SAFETY: the ioctls get pointers to live, initialised structures of the sizes that they expect; the shared page is mapped with
        // the length that KVM gave and used only by this thread.
        unsafe {
            let vm = libc::ioctl(self.kvm, CREATE_VM, 0);
            let slot = |slot, guest_phys_addr, memory_size, at: *mut u8| kvm_userspace_memory_region {
                slot,
                flags: 0,
                guest_phys_addr,
                memory_size,
                userspace_addr: at as u64,
            };
            libc::ioctl(vm, SET_MEMORY, &slot(0, 0, KERNEL_LEN as u64, self.kernel));
            libc::ioctl(vm, SET_MEMORY, &slot(1, GUEST_BASE, self.memory_len as u64, self.memory));
            let vcpu = libc::ioctl(vm, CREATE_VCPU, 0);
            if vcpu < 0 {
                return 0;
            }
            let protection = libc::PROT_READ | libc::PROT_WRITE;
            let run: *mut kvm_run =
                libc::mmap(ptr::null_mut(), self.run_len, protection, libc::MAP_SHARED, vcpu, 0).cast();
            libc::ioctl(vcpu, SET_CPUID2, ptr::from_ref(&*self.cpuid));
            let mut sregs = kvm_sregs::default();
            libc::ioctl(vcpu, GET_SREGS, &mut sregs);
            let segment = |selector, type_, l, db| kvm_segment {
                base: 0,
                limit: 0xffff_ffff,
                selector,
                type_,
                present: 1,
                dpl: 3,
                db,
                s: 1,
                l,
                g: 1,
                ..kvm_segment::default()
            };
            let (code, data) = (segment(0x2b, 11, 1, 0), segment(0x23, 3, 0, 1));
            sregs.cr3 = 0x1000;
            sregs.cr4 = 0x20 | 0x600 | (1 << 18);
            sregs.cr0 = 0x8005_0033;
            sregs.efer = 0xd01;
            (sregs.cs, sregs.ss, sregs.ds, sregs.es, sregs.fs, sregs.gs) =
                (code, data, data, data, data, data);
            libc::ioctl(vcpu, SET_SREGS, &sregs);
            let mut xcrs = kvm_xcrs { nr_xcrs: 1, ..kvm_xcrs::default() };
            xcrs.xcrs[0].value = 7;
            libc::ioctl(vcpu, SET_XCRS, &xcrs);
            let msr = |index, data| kvm_msr_entry { index, reserved: 0, data };
            let msrs = Msrs {
                nmsrs: 3,
                pad: 0,
                entries: [
                    msr(0xc000_0081, (0x1b << 48) | (8 << 32)),
                    msr(0xc000_0082, STUB),
                    msr(0xc000_0084, 0x200),
                ],
            };
            libc::ioctl(vcpu, SET_MSRS, &msrs);
            let regs = kvm_regs {
                rip: CODE,
                rflags: 0x202,
                rdi: GUEST_BASE,
                rsi: load.writes.min(load.touches),
                rdx: load.touches.saturating_sub(load.writes),
                ..kvm_regs::default()
            };
            libc::ioctl(vcpu, SET_REGS, &regs);
            (*run).kvm_valid_regs = u64::from(KVM_SYNC_X86_REGS | KVM_SYNC_X86_SREGS);
            for _ in 0..load.exits.max(1) {
                if libc::ioctl(vcpu, RUN, 0) != 0 || (*run).exit_reason != kvm_bindings::KVM_EXIT_IO {
                    return 0;
                }
                let shared = &mut (*run).s.regs;
                shared.regs.rip = shared.regs.rcx;
                shared.regs.rflags = shared.regs.r11;
                (shared.sregs.cs, shared.sregs.ss) = (code, data);
                (*run).kvm_dirty_regs = u64::from(KVM_SYNC_X86_REGS | KVM_SYNC_X86_SREGS);
            }
            1
        }
    }
}

impl Drop for Prepared {
    fn drop(&mut self) {
        // SAFETY: the mappings and the descriptor are ours and not used after this.
        unsafe {
            libc::munmap(self.kernel.cast(), KERNEL_LEN);
            libc::munmap(self.memory.cast(), self.memory_len);
            libc::close(self.kvm);
        }
    }
}

/// `CLOCK_MONOTONIC`, ns.
fn now() -> u64 {
    let mut t = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the structure is ours.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut t) };
    t.tv_sec as u64 * 1_000_000_000 + t.tv_nsec as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_touches_and_exits_cost_more() {
        let load = |n| Load { resident_pages: 2000, exits: n, touches: n, writes: n / 3 };
        let few = measure(load(1), 5).expect("this test needs a working /dev/kvm");
        let many = measure(load(600), 5).expect("this test needs a working /dev/kvm");
        assert!(many > few, "{few} ns for one, {many} ns for 600");
    }
}

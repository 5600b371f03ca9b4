//! The system registers and model-specific registers of a vCPU, which guest code never changes.

use crate::error::Error;
use crate::host::Host;
use crate::layout;
use crate::stub;
use kvm_bindings::{
    KVM_VCPU_TSC_CTRL, KVM_VCPU_TSC_OFFSET, Msrs, kvm_device_attr, kvm_msr_entry, kvm_segment, kvm_sregs,
    kvm_xcrs,
};
use kvm_ioctls::VcpuFd;
use std::os::fd::AsRawFd;

const MSR_TSC: u32 = 0x10;
const MSR_STAR: u32 = 0xc000_0081;
const MSR_LSTAR: u32 = 0xc000_0082;
const MSR_FMASK: u32 = 0xc000_0084;
const MSR_TSC_AUX: u32 = 0xc000_0103;
/// What `syscall` clears: trap, interrupt, direction, I/O privilege, nested task, alignment check.
const FMASK: u64 = 0x4_7700;
const CR0: u64 = 0x8005_0033; // PG AM WP NE ET MP PE
const CR4: u64 = 1 << 5 | 1 << 9 | 1 << 10 | 1 << 16 | 1 << 18; // PAE OSFXSR OSXMMEXCPT FSGSBASE OSXSAVE
const CR4_PKE: u64 = 1 << 22;
const EFER: u64 = 1 | 1 << 8 | 1 << 10 | 1 << 11; // SCE LME LMA NXE
const KVM_SET_DEVICE_ATTR: libc::c_ulong = 0x4018_aee1;

/// Writes everything that guest code finds set up: at the vCPU's creation, and when KVM had to reset it.
pub(super) fn program(fd: &VcpuFd, base: &kvm_sregs, host: &Host, index: usize) -> Result<(), Error> {
    fd.set_sregs(base).map_err(Error::kvm("set a virtual processor's registers"))?;
    let mut xcrs = kvm_xcrs { nr_xcrs: 1, ..Default::default() };
    xcrs.xcrs[0].value = host.xcr0;
    fd.set_xcrs(&xcrs).map_err(Error::kvm("enable the extended state of a virtual processor"))?;
    set_msrs(fd, index, host.rdtscp)
}

/// The system registers of guest user mode, made from those that KVM starts with.
pub(super) fn base_sregs(mut s: kvm_sregs, index: usize, pku: bool) -> kvm_sregs {
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
    // After a reset the register names a table at address 0, which user code could fill with call gates.
    s.ldt = kvm_segment { type_: 2, unusable: 1, ..Default::default() };
    s.gdt.base = layout::window(layout::GDT);
    s.gdt.limit = 8 * 8 - 1;
    s.idt.base = layout::window(layout::IDT);
    s.idt.limit = 0xfff;
    s.cr0 = CR0;
    s.cr4 = CR4 | if pku { CR4_PKE } else { 0 };
    s.efer = EFER;
    s
}

fn set_msrs(fd: &VcpuFd, index: usize, rdtscp: bool) -> Result<(), Error> {
    let msr = |index, data| kvm_msr_entry { index, data, ..Default::default() };
    let mut list = vec![
        msr(MSR_STAR, 0x1b << 48 | u64::from(stub::KERNEL_CS) << 32),
        msr(MSR_LSTAR, stub::syscall_entry()),
        msr(MSR_FMASK, FMASK),
    ];
    if rdtscp {
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

/// Sets TSC_AUX; false where KVM refuses.
pub(super) fn set_tsc_aux(fd: &VcpuFd, value: u32) -> bool {
    let entry = kvm_msr_entry { index: MSR_TSC_AUX, data: u64::from(value), ..Default::default() };
    Msrs::from_entries(&[entry]).is_ok_and(|m| fd.set_msrs(&m).is_ok_and(|n| n == 1))
}

/// Makes guest and host counter equal; false where KVM cannot.
pub(super) fn zero_tsc_offset(fd: &VcpuFd) -> bool {
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

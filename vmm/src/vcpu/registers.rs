//! Between the task's registers and KVM's.

use guest::platform::{Exit, Regs};
use kvm_bindings::{kvm_regs, kvm_sregs};

/// What becomes of registers that no processor would run.
pub(super) fn refuse(regs: &Regs) -> Option<Exit> {
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

/// The task's registers as KVM shows them.
pub(super) fn store(regs: &mut Regs, r: &kvm_regs, s: &kvm_sregs) {
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

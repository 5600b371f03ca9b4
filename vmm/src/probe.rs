//! What can be known of a host only by running a guest: where the stub runs, and what `rdtscp` shows.
//!
//! Made once for each [`Machine`], so once for each seed tree and never on the way of a fork. It refuses a host where the stub does not
//! work, before any guest program could find out.

use crate::error::Error;
use crate::machine::Machine;
use crate::stub;
use crate::vcpu::KvmVcpu;
use guest::platform::{Access, Exit, FIRST_EXTENT, PAGE_SIZE, Platform, Regs, Root, Va, Vcpu};
use std::sync::Arc;

const CODE: Va = 0x40_0000;
// 0: syscall; 2: ud2; 4: rdtscp; mov ebx, ecx; syscall
const PROGRAM: &[u8] = b"\x0f\x05\x0f\x0b\x0f\x01\xf9\x89\xcb\x0f\x05";
/// A TSC_AUX that no Linux host has (processor number in the low 12 bits, node above).
const MARK: u32 = 0x7a5c_e9d3;

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Privilege level of the stub at a system call: 0 as the architecture says, or 3 (KVM without hardware virtualisation).
    pub syscall_level: u8,
    /// Privilege level of the stub at an exception: 0.
    pub exception_level: u8,
    /// What `rdtscp` leaves in ecx is what KVM was told for the vCPU.
    pub tsc_aux: bool,
    /// Counter frequency, kHz; `None` when the counter is not invariant or not the host's.
    pub tsc_khz: Option<u64>,
}

/// Runs the probe in a virtual machine of its own. The machine must not have one.
pub(crate) fn run(machine: &Arc<Machine>) -> Result<Facts, Error> {
    let result = in_a_vm(machine);
    machine.slots.forget();
    machine.arena.discard(FIRST_EXTENT, PAGE_SIZE)?;
    machine.tables.machine_gone()?;
    result
}

fn in_a_vm(machine: &Arc<Machine>) -> Result<Facts, Error> {
    let vm = machine.slots.create(&machine.host.kvm)?;
    machine.slots.fill()?;
    let root = machine.create_root()?;
    machine.write(FIRST_EXTENT, PROGRAM)?;
    machine.map(root, CODE, FIRST_EXTENT, PAGE_SIZE, Access { write: false, exec: true })?;
    let result = KvmVcpu::new(machine.clone(), &vm, 0).and_then(|vcpu| facts(machine, vcpu, root));
    machine.unmap(root, CODE, PAGE_SIZE)?;
    machine.destroy_root(root);
    result
}

fn facts(machine: &Machine, mut vcpu: KvmVcpu, root: Root) -> Result<Facts, Error> {
    vcpu.reset_xstate();
    let step = |vcpu: &mut KvmVcpu, offset: u64| {
        let mut regs = Regs { rip: CODE + offset, rflags: 0x202, ..Regs::default() };
        let exit = vcpu.run(&mut regs, root)?;
        Ok::<_, Error>((exit, regs, vcpu.stub_level()))
    };
    let (exit, regs, syscall_level) = step(&mut vcpu, 0)?;
    if exit != Exit::Syscall || regs.rip != CODE + 2 || !matches!(syscall_level, 0 | 3) {
        return Err(unexpected("a system call", exit, &regs, syscall_level));
    }
    let (exit, regs, exception_level) = step(&mut vcpu, 2)?;
    let wanted = Exit::Exception { vector: 6, error: 0, cr2: 0 };
    if exit != wanted || regs.rip != CODE + 2 || exception_level != 0 {
        return Err(unexpected("an exception", exit, &regs, exception_level));
    }
    let mut tsc_aux = false;
    if machine.host.rdtscp && vcpu.set_tsc_aux(MARK) {
        let (exit, regs, _) = step(&mut vcpu, 4)?;
        tsc_aux = exit == Exit::Syscall && regs.rbx == u64::from(MARK);
    }
    let tsc_khz = vcpu.tsc_khz().filter(|khz| machine.host.invariant_tsc && *khz > 0);
    Ok(Facts { syscall_level, exception_level, tsc_aux, tsc_khz })
}

fn unexpected(what: &str, exit: Exit, regs: &Regs, level: u8) -> Error {
    let entry = stub::syscall_entry();
    Error::Stub(format!("{what} came back as {exit:?} at {:#x}, level {level}, stub at {entry:#x}", regs.rip))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_probe_leaves_nothing_behind_and_agrees_with_the_host() {
        let machine = Machine::new(256 << 20).expect("these tests need a working /dev/kvm");
        let facts = machine.facts().unwrap();
        assert!(!machine.is_live());
        assert!(machine.tables.roots().is_empty());
        let mut byte = [1];
        machine.read(FIRST_EXTENT, &mut byte).unwrap();
        assert_eq!(byte, [0]);
        assert!(!machine.host.nested_paging || facts.syscall_level == 0, "{facts:?}");
        eprintln!("{facts:?}");
    }
}

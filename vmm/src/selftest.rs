//! A check of this host by running a guest of a few instructions, without a guest kernel.
//!
//! For operators (`coppice check`) and for a daemon at its start: each check says in one sentence what it found.

use crate::error::Error;
use crate::host::rdtsc;
use crate::machine::Machine;
use crate::vcpu::KvmVcpu;
use guest::platform::{Access, Exit, FIRST_EXTENT, Platform, Regs, Root, Va, Vcpu};
use std::sync::Arc;

const CODE: Va = 0x40_0000;
// 0: syscall; 2: ud2; 4: div ecx; 6: mov rax,[rdi]; 9: rdtsc, shl rdx,32; or rax,rdx; syscall; 20: jmp 20
const PROGRAM: &[u8] =
    b"\x0f\x05\x0f\x0b\xf7\xf1\x48\x8b\x07\x0f\x31\x48\xc1\xe2\x20\x48\x09\xd0\x0f\x05\xeb\xfe";

/// What was found.
#[derive(Debug)]
pub struct Report {
    /// Each check with what it found, or what is wrong.
    pub checks: Vec<(&'static str, Result<String, String>)>,
    /// KVM is known to use EPT or NPT; false: it may shadow guest page tables.
    pub nested_paging: bool,
    /// KVM_PRE_FAULT_MEMORY is there.
    pub pre_fault: bool,
    /// XCR0 of guest code.
    pub xcr0: u64,
    /// Frequency of the counter that guest code may read, kHz.
    pub tsc_khz: Option<u64>,
}

impl Report {
    /// Whether every check passed.
    pub fn passed(&self) -> bool {
        self.checks.iter().all(|(_, result)| result.is_ok())
    }
}

/// Runs all checks. Fails only where nothing can run at all.
pub fn run() -> Result<Report, Error> {
    let machine = Machine::new(256 << 20)?;
    let vm = machine.slots.create(&machine.host.kvm)?;
    machine.slots.fill()?;
    let mut vcpu = KvmVcpu::new(machine.clone(), &vm, 0)?;
    vcpu.reset_xstate();
    let root = machine.create_root()?;
    machine.write(FIRST_EXTENT, PROGRAM)?;
    machine.map(root, CODE, FIRST_EXTENT, 4096, Access { write: false, exec: true })?;
    let mut checks = Vec::new();
    let mut at = |offset: u64| step(&mut vcpu, root, offset);
    let mut expect = |name, offset, wanted: Exit| {
        let result = match at(offset) {
            Ok((exit, _)) if exit == wanted => Ok("as the architecture says".to_owned()),
            Ok((exit, regs)) => Err(format!("the stub reported {exit:?} at {:#x}", regs.rip)),
            Err(e) => Err(e.to_string()),
        };
        checks.push((name, result));
    };
    expect("system call", 0, Exit::Syscall);
    expect("undefined instruction", 2, Exit::Exception { vector: 6, error: 0, cr2: 0 });
    expect("division by zero", 4, Exit::Exception { vector: 0, error: 0, cr2: 0 });
    expect("page fault", 6, Exit::Exception { vector: 14, error: 4, cr2: 0 });
    let before = rdtsc();
    let counter = match at(9) {
        Ok((Exit::Syscall, regs)) if (before..=rdtsc()).contains(&regs.rax) => {
            Ok("equals the host's".to_owned())
        }
        Ok(_) => Err("differs from the host's".to_owned()),
        Err(e) => Err(e.to_string()),
    };
    checks.push(("time-stamp counter", counter));
    checks.push(("preemption", preempt(&mut vcpu, root)));
    Ok(report(&machine, checks))
}

fn report(machine: &Arc<Machine>, checks: Vec<(&'static str, Result<String, String>)>) -> Report {
    let host = machine.host();
    Report {
        checks,
        nested_paging: host.nested_paging,
        pre_fault: host.pre_fault,
        xcr0: host.xcr0,
        tsc_khz: machine.tsc_khz(),
    }
}

fn step(vcpu: &mut KvmVcpu, root: Root, offset: u64) -> Result<(Exit, Regs), Error> {
    let mut regs = Regs { rip: CODE + offset, rflags: 0x202, ..Regs::default() };
    let exit = vcpu.run(&mut regs, root)?;
    Ok((exit, regs))
}

fn preempt(vcpu: &mut KvmVcpu, root: Root) -> Result<String, String> {
    let mut ticker = crate::signal::Ticker::new().map_err(|e| e.to_string())?;
    vcpu.attach();
    let time = crate::machine::now();
    let result = ticker.arm(time, time + 2_000_000).and_then(|()| step(vcpu, root, 20));
    vcpu.detach();
    match result {
        Ok((Exit::Preempted, _)) => Ok("a timer ends guest code".to_owned()),
        Ok((exit, _)) => Err(format!("a timer ended guest code as {exit:?}")),
        Err(e) => Err(e.to_string()),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn this_host_passes() {
        let report = super::run().expect("these tests need a working /dev/kvm");
        assert!(report.passed(), "{report:#?}");
    }
}

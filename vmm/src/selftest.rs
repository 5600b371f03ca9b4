//! A check of this host by running guests of a few instructions, without a guest kernel.
//!
//! For operators (`coppice check`) and for a daemon at its start: each check says in one sentence what it found. It changes nothing on
//! the host and takes some 20 ms.

use crate::error::Error;
use crate::host::rdtsc;
use crate::layout;
use crate::machine::{Machine, now};
use crate::probe::Facts;
use crate::signal::Ticker;
use crate::vcpu::KvmVcpu;
use guest::platform::{Access, Exit, FIRST_EXTENT, PAGE_SIZE, Platform, Regs, Root, Va, Vcpu};
use kvm_ioctls::VmFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const CODE: Va = 0x40_0000;
const DATA: Va = 0x50_0000;
const VDSO: Va = 0x60_0000;

/// The programs, each with its place in the code page.
const SYSCALL: (u64, &[u8]) = (0, b"\x0f\x05");
const UD2: (u64, &[u8]) = (0x10, b"\x0f\x0b");
const DIVIDE: (u64, &[u8]) = (0x20, b"\xf7\xf1");
/// mov rax, [rdi]; syscall
const LOAD: (u64, &[u8]) = (0x30, b"\x48\x8b\x07\x0f\x05");
/// rdtsc; shl rdx, 32; or rax, rdx; syscall
const COUNTER: (u64, &[u8]) = (0x40, b"\x0f\x31\x48\xc1\xe2\x20\x48\x09\xd0\x0f\x05");
/// jmp to itself
const SPIN: (u64, &[u8]) = (0x50, b"\xeb\xfe");
/// movq xmm0, rdi; syscall
const TO_XMM: (u64, &[u8]) = (0x60, b"\x66\x48\x0f\x6e\xc7\x0f\x05");
/// movq rax, xmm0; syscall
const FROM_XMM: (u64, &[u8]) = (0x70, b"\x66\x48\x0f\x7e\xc0\x0f\x05");
/// 1: inc qword ptr [rdi]; jmp 1b
const COUNT: (u64, &[u8]) = (0x80, b"\x48\xff\x07\xeb\xfb");
/// mov rax, [rdi]; 1: pause; cmp rax, [rdi]; je 1b; syscall
const WATCH: (u64, &[u8]) = (0x90, b"\x48\x8b\x07\xf3\x90\x48\x3b\x07\x74\xf9\x0f\x05");
/// mov edi, 1; call rax; syscall
const CALL: (u64, &[u8]) = (0xb0, b"\xbf\x01\0\0\0\xff\xd0\x0f\x05");
const PROGRAMS: [(u64, &[u8]); 11] =
    [SYSCALL, UD2, DIVIDE, LOAD, COUNTER, SPIN, TO_XMM, FROM_XMM, COUNT, WATCH, CALL];

/// What a check found, or what is wrong.
pub type Finding = Result<String, String>;

/// What was found.
#[derive(Debug)]
pub struct Report {
    /// Each check by name.
    pub checks: Vec<(&'static str, Finding)>,
    /// What the machine runs without here, and what that costs: one sentence each.
    pub lacks: Vec<String>,
    /// KVM is known to use EPT or NPT; false: it may shadow guest page tables.
    pub nested_paging: bool,
    /// KVM_PRE_FAULT_MEMORY is there.
    pub pre_fault: bool,
    /// XCR0 of guest code.
    pub xcr0: u64,
    /// Frequency of the counter that guest code may read, kHz.
    pub tsc_khz: Option<u64>,
    /// Where the stub runs, and what `rdtscp` shows.
    pub facts: Facts,
}

impl Report {
    /// Whether every check passed.
    pub fn passed(&self) -> bool {
        self.checks.iter().all(|(_, result)| result.is_ok())
    }
}

/// A virtual machine with the programs and a page of data.
struct Bench {
    machine: Arc<Machine>,
    root: Root,
    vm: Arc<VmFd>,
    vcpu: KvmVcpu,
}

/// Runs all checks. Fails only where nothing can run at all.
pub fn run() -> Result<Report, Error> {
    let machine = Machine::new(256 << 20)?;
    let facts = machine.facts().ok_or_else(|| Error::Stub("it was not probed".into()))?;
    let root = prepare(&machine)?;
    let vm = machine.slots.create(&machine.host.kvm)?;
    machine.slots.fill()?;
    let mut vcpu = KvmVcpu::new(machine.clone(), &vm, 0)?;
    vcpu.reset_xstate();
    let mut bench = Bench { machine, root, vm, vcpu };
    let window = layout::window(layout::GDT);
    let mut checks = vec![("stub", Ok(levels(facts)))];
    let exception = |vector, error, cr2| Exit::Exception { vector, error, cr2 };
    for (name, program, rdi, wanted) in [
        ("system call", SYSCALL, 0, Exit::Syscall),
        ("undefined instruction", UD2, 0, exception(6, 0, 0)),
        ("division by zero", DIVIDE, 0, exception(0, 0, 0)),
        ("page fault", LOAD, 8, exception(14, 4, 8)),
        ("supervisor page", LOAD, window, exception(14, 5, window)),
    ] {
        let found = match bench.step(program, rdi, 0) {
            Ok((exit, _)) if exit == wanted => Ok("as the architecture says".to_owned()),
            Ok((exit, regs)) => Err(format!("the stub reported {exit:?} at {:#x}", regs.rip)),
            Err(e) => Err(e.to_string()),
        };
        checks.push((name, found));
    }
    checks.push(("extended state", bench.extended_state()));
    checks.push(("time-stamp counter", bench.counter()));
    checks.push(("processor number", Ok(processor_number(facts))));
    checks.push(("vDSO clock", bench.vdso()));
    checks.push(("preemption", bench.preempt()));
    checks.push(("second virtual processor", bench.second()));
    checks.push(("fork", bench.fork()));
    let host = bench.machine.host();
    Ok(Report {
        checks,
        lacks: lacks(host.nested_paging, host.pre_fault, bench.machine.tsc_khz().is_some()),
        nested_paging: host.nested_paging,
        pre_fault: host.pre_fault,
        xcr0: host.xcr0,
        tsc_khz: bench.machine.tsc_khz(),
        facts,
    })
}

/// Maps code, data, time page and vDSO into a new address space.
fn prepare(machine: &Machine) -> Result<Root, Error> {
    let root = machine.create_root()?;
    for (at, code) in PROGRAMS {
        machine.write(FIRST_EXTENT + at, code)?;
    }
    let code = Access { write: false, exec: true };
    let data = Access { write: true, exec: false };
    machine.map(root, CODE, FIRST_EXTENT, PAGE_SIZE, code)?;
    machine.map(root, DATA, FIRST_EXTENT + PAGE_SIZE, PAGE_SIZE, data)?;
    let (gpa, image) = (FIRST_EXTENT + 2 * PAGE_SIZE, machine.vdso_image());
    machine.write(gpa + PAGE_SIZE, image)?;
    let len = (image.len() as u64).next_multiple_of(PAGE_SIZE) + PAGE_SIZE;
    machine.map(root, VDSO - PAGE_SIZE, gpa, len, code)?;
    Ok(root)
}

fn levels(facts: Facts) -> String {
    let (call, fault) = (facts.syscall_level, facts.exception_level);
    format!("level {call} at a system call, level {fault} at an exception")
}

fn processor_number(facts: Facts) -> String {
    match facts.tsc_aux {
        true => "rdtscp tells the virtual processor",
        false => "rdtscp does not tell the virtual processor: getcpu(2) is a system call",
    }
    .into()
}

fn lacks(nested_paging: bool, pre_fault: bool, counter: bool) -> Vec<String> {
    let mut lacks = Vec::new();
    if !nested_paging {
        lacks.push(
            "EPT or NPT: KVM shadows guest page tables, so the first touch of a page and every exit cost some 50 us instead of 1-2 us"
                .into(),
        );
    }
    if !pre_fault {
        lacks.push(
            "KVM_PRE_FAULT_MEMORY (Linux 6.11 with EPT or NPT): each page that an instance touches first costs an exit; only the pages \
             that it writes are made ready ahead"
                .into(),
        );
    }
    if !counter {
        lacks.push("a counter that guest code may read: every clock read is a system call".into());
    }
    lacks
}

fn at(program: (u64, &[u8])) -> Regs {
    Regs { rip: CODE + program.0, rsp: DATA + 0xf00, rflags: 0x202, ..Regs::default() }
}

impl Bench {
    fn step(&mut self, program: (u64, &[u8]), rdi: u64, rax: u64) -> Result<(Exit, Regs), Error> {
        let mut regs = Regs { rdi, rax, ..at(program) };
        let exit = self.vcpu.run(&mut regs, self.root)?;
        Ok((exit, regs))
    }

    /// Runs a program that ends with a system call; its rax.
    fn call(&mut self, program: (u64, &[u8]), rdi: u64, rax: u64) -> Result<u64, String> {
        match self.step(program, rdi, rax) {
            Ok((Exit::Syscall, regs)) => Ok(regs.rax),
            Ok((exit, regs)) => Err(format!("the program ended as {exit:?} at {:#x}", regs.rip)),
            Err(e) => Err(e.to_string()),
        }
    }

    fn extended_state(&mut self) -> Finding {
        const VALUE: u64 = 0x1122_3344_5566_7788;
        self.call(TO_XMM, VALUE, 0)?;
        let image = self.vcpu.save_xstate();
        self.vcpu.reset_xstate();
        if self.call(FROM_XMM, 0, 0)? != 0 {
            return Err("a reset left a register as it was".into());
        }
        self.vcpu.load_xstate(&image).map_err(|e| e.to_string())?;
        match self.call(FROM_XMM, 0, 0)? {
            VALUE => Ok(format!("{} bytes are saved and loaded", image.len())),
            _ => Err("a register was not what had been saved".into()),
        }
    }

    fn counter(&mut self) -> Finding {
        let before = rdtsc();
        let inside = self.call(COUNTER, 0, 0)?;
        let equal = (before..=rdtsc()).contains(&inside);
        if equal { Ok("equals the host's".into()) } else { Err("differs from the host's".into()) }
    }

    fn vdso(&mut self) -> Finding {
        let Some(khz) = self.machine.tsc_khz() else { return Ok("left to system calls".into()) };
        let mult = (1_000_000u64 << 24) / khz;
        let base = now();
        // As guest::time::TimePage: sequence, mode, counter, multiplier, shift, clock.
        let words = [2 | 1 << 32, rdtsc(), (mult & 0xffff_ffff) | 24 << 32, base];
        let page: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
        self.machine.write(FIRST_EXTENT + 2 * PAGE_SIZE, &page).map_err(|e| e.to_string())?;
        let mut regs = Regs { rax: VDSO + PAGE_SIZE, rsi: DATA + 0x800, ..at(CALL) };
        match self.vcpu.run(&mut regs, self.root) {
            Ok(Exit::Syscall) if regs.rip == CODE + CALL.0 + CALL.1.len() as u64 && regs.rax == 0 => {}
            Ok(exit) => return Err(format!("it ended as {exit:?} at {:#x}", regs.rip)),
            Err(e) => return Err(e.to_string()),
        }
        let mut time = [0; 16];
        self.machine.read(FIRST_EXTENT + PAGE_SIZE + 0x800, &mut time).map_err(|e| e.to_string())?;
        let [sec, ns] = [0, 8].map(|i| u64::from_le_bytes(time[i..i + 8].try_into().unwrap_or_default()));
        let (read, host) = (sec * 1_000_000_000 + ns, now());
        match (base.saturating_sub(1_000)..=host + 100_000).contains(&read) {
            true => Ok("tells the host's time without a system call".into()),
            false => Err(format!("reads {read} ns where the host's clock says {host} ns")),
        }
    }

    fn preempt(&mut self) -> Finding {
        let mut ticker = Ticker::new().map_err(|e| e.to_string())?;
        self.vcpu.attach();
        let time = now();
        let result = ticker.arm(time, time + 2_000_000).and_then(|()| self.step(SPIN, 0, 0));
        self.vcpu.detach();
        match result {
            Ok((Exit::Preempted, _)) => Ok("a timer ends guest code".to_owned()),
            Ok((exit, _)) => Err(format!("a timer ended guest code as {exit:?}")),
            Err(e) => Err(e.to_string()),
        }
    }

    /// One virtual processor counts while the first waits for the count to change.
    fn second(&mut self) -> Finding {
        let mut other = KvmVcpu::new(self.machine.clone(), &self.vm, 1).map_err(|e| e.to_string())?;
        let root = self.root;
        let done = Arc::new(AtomicBool::new(false));
        let stop = done.clone();
        let thread = std::thread::spawn(move || {
            other.attach();
            let mut regs = Regs { rdi: DATA, ..at(COUNT) };
            let mut result = Ok(Exit::Preempted);
            while !stop.load(Ordering::Acquire) && matches!(result, Ok(Exit::Preempted)) {
                result = other.run(&mut regs, root);
            }
            other.detach();
            result
        });
        let mut found = Err("it did not run".to_owned());
        if let Ok(mut ticker) = Ticker::new() {
            self.vcpu.attach();
            let started = Instant::now();
            let mut regs = Regs { rdi: DATA, ..at(WATCH) };
            while started.elapsed() < Duration::from_secs(5) {
                let time = now();
                let _ = ticker.arm(time, time + Ticker::PERIOD);
                match self.vcpu.run(&mut regs, root) {
                    Ok(Exit::Preempted) => {}
                    Ok(Exit::Syscall) => {
                        found = Ok("runs at the same time".to_owned());
                        break;
                    }
                    Ok(exit) => {
                        found = Err(format!("the first one ended as {exit:?}"));
                        break;
                    }
                    Err(e) => {
                        found = Err(e.to_string());
                        break;
                    }
                }
            }
            self.vcpu.detach();
        }
        done.store(true, Ordering::Release);
        while !thread.is_finished() {
            self.machine.kick(1);
            std::thread::sleep(Duration::from_millis(1));
        }
        match thread.join() {
            Ok(Ok(Exit::Preempted)) => found,
            Ok(Ok(exit)) => Err(format!("it ended as {exit:?}")),
            Ok(Err(e)) => Err(e.to_string()),
            Err(_) => Err("its thread panicked".into()),
        }
    }

    /// A forked child makes a virtual machine of its own around the same memory and makes a system call in it.
    fn fork(&mut self) -> Finding {
        let work = || -> Result<bool, Error> {
            let vm = self.machine.slots.create(&self.machine.host.kvm)?;
            self.machine.slots.fill()?;
            let mut vcpu = KvmVcpu::new(self.machine.clone(), &vm, 0)?;
            vcpu.reset_xstate();
            let mut regs = at(SYSCALL);
            Ok(vcpu.run(&mut regs, self.root)? == Exit::Syscall)
        };
        // Fifty times what the slowest known host takes.
        match crate::fork::try_in_child(work, Duration::from_secs(5)) {
            Ok(true) => Ok("a child makes its own virtual machine".into()),
            Ok(false) => Err("a child could not run a virtual machine of its own".into()),
            Err(e) => Err(e.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_host_passes() {
        let report = super::run().expect("these tests need a working /dev/kvm");
        assert!(report.passed(), "{report:#?}");
        assert_eq!(report.checks.len(), 13);
    }

    #[test]
    fn every_lack_says_what_it_costs() {
        assert!(lacks(true, true, true).is_empty());
        let all = lacks(false, false, false);
        assert_eq!(all.len(), 3);
        assert!(all.iter().all(|l| l.contains(": ")), "{all:?}");
    }

    #[test]
    fn the_programs_do_not_overlap() {
        for pair in PROGRAMS.windows(2) {
            assert!(pair[0].0 + pair[0].1.len() as u64 <= pair[1].0, "{pair:x?}");
        }
    }
}

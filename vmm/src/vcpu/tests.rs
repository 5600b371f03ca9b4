//! Small programs in guest ring 3. These need /dev/kvm.

use super::xstate::{MXCSR, XSTATE_BV};
use super::*;
use guest::platform::{Access, BadXstate, Gpa, Platform, Va, Vcpu};

pub(super) const CODE: Va = 0x40_0000;
pub(super) const DATA: Va = 0x50_0000;
pub(super) const CODE_GPA: Gpa = 40 << 20;
pub(super) const DATA_GPA: Gpa = 41 << 20;

pub(super) struct Guest {
    pub machine: Arc<Machine>,
    pub vcpu: KvmVcpu,
    pub root: Root,
    pub regs: Regs,
}

impl Guest {
    pub fn new(code: &[u8]) -> Self {
        let machine = Machine::new(1 << 30).expect("these tests need a working /dev/kvm");
        let vm = machine.slots.create(&machine.host.kvm).unwrap();
        machine.slots.fill().unwrap();
        let mut vcpu = KvmVcpu::new(machine.clone(), &vm, 0).unwrap();
        vcpu.reset_xstate();
        let root = machine.create_root().unwrap();
        machine.write(CODE_GPA, code).unwrap();
        machine.map(root, CODE, CODE_GPA, 0x1000, Access { write: false, exec: true }).unwrap();
        machine.map(root, DATA, DATA_GPA, 0x10000, Access { write: true, exec: false }).unwrap();
        let regs = Regs { rip: CODE, rsp: DATA + 0x8000, rflags: 0x202, ..Regs::default() };
        Guest { machine, vcpu, root, regs }
    }

    pub fn run(&mut self) -> Exit {
        self.vcpu.run(&mut self.regs, self.root).unwrap()
    }

    /// Runs from an address, whatever it is.
    pub fn run_from(&mut self, rip: Va) -> Exit {
        self.regs.rip = rip;
        self.run()
    }

    pub fn at(&mut self, offset: u64) -> &mut Self {
        self.regs.rip = CODE + offset;
        self
    }
}

#[test]
fn a_system_call_comes_back_with_its_registers() {
    // mov eax, 39; syscall; mov ebx, eax; mov eax, 7; syscall
    let mut g = Guest::new(b"\xb8\x27\0\0\0\x0f\x05\x89\xc3\xb8\x07\0\0\0\x0f\x05");
    g.regs.r12 = 0x1234_5678_9abc_def0;
    assert_eq!(g.run(), Exit::Syscall);
    assert_eq!((g.regs.rax, g.regs.rip), (39, CODE + 7));
    assert_eq!(g.regs.r12, 0x1234_5678_9abc_def0);
    assert_eq!(g.regs.rsp, DATA + 0x8000);
    eprintln!("rflags {:#x}", g.regs.rflags);
    g.regs.rax = 1000;
    assert_eq!(g.run(), Exit::Syscall);
    assert_eq!((g.regs.rax, g.regs.rbx), (7, 1000));
}

#[test]
fn what_kvm_did_not_take_is_loaded_again() {
    let mut g = Guest::new(b"\xb8\x27\0\0\0\x0f\x05");
    // KVM_RUN came back before it looked at the registers, as where KVM may not start a thread (EAGAIN).
    g.vcpu.load(&g.regs, g.root);
    assert_eq!(g.run(), Exit::Syscall);
    assert_eq!((g.regs.rax, g.regs.rip), (39, CODE + 7));
    // KVM says what it has taken.
    g.regs.rip = CODE;
    assert_eq!(g.run(), Exit::Syscall);
    assert_eq!(g.vcpu.fd.get_kvm_run().kvm_dirty_regs, 0);
}

#[test]
fn exceptions_bring_vector_error_code_and_address() {
    // 0: ud2; 2: div ecx (ecx=0); 4: mov rax,[rdi]; 7: mov [rdi],rax; 10: hlt; 11: int3; 12: int 0x80; 14: jmp rdi
    let mut g = Guest::new(b"\x0f\x0b\xf7\xf1\x48\x8b\x07\x48\x89\x07\xf4\xcc\xcd\x80\xff\xe7");
    assert_eq!(g.run(), Exit::Exception { vector: 6, error: 0, cr2: 0 });
    assert_eq!((g.regs.rip, g.regs.rsp), (CODE, DATA + 0x8000));
    assert_eq!(g.at(2).run(), Exit::Exception { vector: 0, error: 0, cr2: 0 });
    assert_eq!(g.regs.rip, CODE + 2);
    g.regs.rdi = 0x1234_5678;
    assert_eq!(g.at(4).run(), Exit::Exception { vector: 14, error: 4, cr2: 0x1234_5678 });
    g.regs.rdi = CODE;
    assert_eq!(g.at(7).run(), Exit::Exception { vector: 14, error: 7, cr2: CODE });
    assert_eq!(g.regs.rip, CODE + 7);
    g.regs.rdi = 0x8000_0000_0000_0000;
    assert_eq!(g.at(4).run(), Exit::Exception { vector: 13, error: 0, cr2: 0 });
    assert_eq!(g.at(10).run(), Exit::Exception { vector: 13, error: 0, cr2: 0 });
    assert_eq!(g.at(11).run(), Exit::Exception { vector: 3, error: 0, cr2: 0 });
    assert_eq!(g.regs.rip, CODE + 12);
    let int80 = g.at(12).run();
    assert!(matches!(int80, Exit::Exception { vector: 6 | 13, .. }), "{int80:?}");
    g.regs.rdi = DATA;
    assert_eq!(g.at(14).run(), Exit::Exception { vector: 14, error: 0x15, cr2: DATA });
    g.regs.rdi = 0xffff_8000_0000_0000;
    let upper = g.at(14).run();
    assert!(matches!(upper, Exit::Exception { vector: 14, cr2: 0xffff_8000_0000_0000, .. }), "{upper:?}");
}

#[test]
fn the_machines_own_pages_are_out_of_reach_of_user_code() {
    // 0: mov rax,[rdi]; 3: mov [rdi],rax
    let mut g = Guest::new(b"\x48\x8b\x07\x48\x89\x07");
    for gpa in [layout::GDT, layout::IDT, layout::tss(0), layout::stack_top(0) - 8] {
        let va = layout::window(gpa);
        g.regs.rdi = va;
        assert_eq!(g.at(0).run(), Exit::Exception { vector: 14, error: 5, cr2: va }, "read {gpa:#x}");
        assert_eq!(g.at(3).run(), Exit::Exception { vector: 14, error: 7, cr2: va }, "write {gpa:#x}");
    }
    g.regs.rdi = layout::window(layout::STUB);
    assert_eq!(g.at(3).run(), Exit::Exception { vector: 14, error: 7, cr2: g.regs.rdi });
}

#[test]
fn user_code_cannot_forge_an_exit() {
    // 0: out 0x10, al; 2: out 0x2e, al; 4: in al, 0x10; 6: jmp rdi
    let mut g = Guest::new(b"\xe6\x10\xe6\x2e\xe4\x10\xff\xe7");
    let refused = |e: Exit| matches!(e, Exit::Illegal | Exit::Exception { vector: 13, .. });
    for offset in [0, 2, 4] {
        let e = g.at(offset).run();
        assert!(refused(e), "{offset}: {e:?}");
        eprintln!("{offset}: {e:?} rip {:#x}", g.regs.rip);
    }
    g.regs.rdi = stub::exception_entry(14);
    g.regs.rsp = stub::stack_top(0) - 48;
    let e = g.at(6).run();
    assert!(refused(e), "{e:?}");
    // Jumping to the system-call entry is a system call of the jumper: it comes back at rcx.
    g.regs.rdi = stub::syscall_entry();
    g.regs.rcx = CODE + 6;
    let e = g.at(6).run();
    assert!(refused(e) || e == Exit::Syscall && g.regs.rip == CODE + 6, "{e:?}");
}

#[test]
fn registers_that_no_processor_runs_are_a_fault_of_the_task() {
    let mut g = Guest::new(b"\x0f\x05");
    let good = g.regs.clone();
    g.regs.rip = 0x0123_4567_89ab_cdef;
    assert_eq!(g.run(), Exit::Illegal);
    g.regs = Regs { fs_base: 1 << 62, ..good.clone() };
    assert_eq!(g.run(), Exit::Illegal);
    g.regs = Regs { rflags: u64::MAX, rsp: 1 << 60, ..good };
    let e = g.run();
    // The trap flag may stop it before the call, alignment checks do not.
    assert!(matches!(e, Exit::Syscall | Exit::Exception { vector: 1, .. }), "{e:?}");
}

#[test]
fn the_time_stamp_counter_is_the_hosts() {
    // rdtscp; shl rdx,32; or rax,rdx; mov ebx,ecx; syscall
    let mut g = Guest::new(b"\x0f\x01\xf9\x48\xc1\xe2\x20\x48\x09\xd0\x89\xcb\x0f\x05");
    let before = crate::host::rdtsc();
    assert_eq!(g.run(), Exit::Syscall);
    let after = crate::host::rdtsc();
    eprintln!("khz {:?}", g.machine.tsc_khz());
    assert!((before..=after).contains(&g.regs.rax), "{before} {} {after}", g.regs.rax);
    assert!(!g.machine.tsc_aux_is_vcpu() || g.regs.rbx == 0, "{}", g.regs.rbx);
}

#[test]
fn extended_state_is_saved_loaded_and_checked() {
    // movq xmm0, rdi; syscall
    let mut g = Guest::new(b"\x66\x48\x0f\x6e\xc7\x0f\x05");
    g.regs.rdi = 0x1122_3344_5566_7788;
    assert_eq!(g.run(), Exit::Syscall);
    let image = g.vcpu.save_xstate();
    assert_eq!(image.len(), g.machine.xstate_len());
    assert_eq!(image[160..168], 0x1122_3344_5566_7788u64.to_le_bytes());
    g.vcpu.reset_xstate();
    assert_eq!(g.vcpu.save_xstate()[160..168], [0; 8]);
    g.vcpu.load_xstate(&image).unwrap();
    assert_eq!(g.vcpu.save_xstate()[160..168], 0x1122_3344_5566_7788u64.to_le_bytes());
    let mut bad = image.clone();
    bad[MXCSR + 2] = 1;
    assert_eq!(g.vcpu.load_xstate(&bad), Err(BadXstate));
    let mut bad = image.clone();
    bad[XSTATE_BV + 7] = 0x40;
    assert_eq!(g.vcpu.load_xstate(&bad), Err(BadXstate));
    assert_eq!(g.vcpu.load_xstate(&image[1..]), Err(BadXstate));
}

#[test]
fn no_stale_translation_survives_a_change_of_the_tables() {
    // 0: mov rax,[rdi]; syscall   5: mov [rdi],rax; syscall
    let mut g = Guest::new(b"\x48\x8b\x07\x0f\x05\x48\x89\x07\x0f\x05");
    let rw = Access { write: true, exec: false };
    let read_only = Access { write: false, exec: false };
    g.machine.write(DATA_GPA + 0x8000, &[1; 8]).unwrap();
    g.machine.write(DATA_GPA + 0x9000, &[2; 8]).unwrap();
    let va = DATA + 0x8000;
    g.regs.rdi = va;
    assert_eq!(g.at(5).run(), Exit::Syscall);
    g.machine.protect(g.root, va, 0x1000, read_only).unwrap();
    assert_eq!(g.at(5).run(), Exit::Exception { vector: 14, error: 7, cr2: va }, "write after protect");
    g.machine.protect(g.root, va, 0x1000, rw).unwrap();
    assert_eq!(g.at(5).run(), Exit::Syscall, "write after upgrade");
    g.machine.unmap(g.root, va, 0x1000).unwrap();
    assert_eq!(g.at(0).run(), Exit::Exception { vector: 14, error: 4, cr2: va }, "read after unmap");
    g.machine.map(g.root, va, DATA_GPA + 0x9000, 0x1000, rw).unwrap();
    g.machine.write(DATA_GPA + 0x9000, &[2; 8]).unwrap();
    assert_eq!(g.at(0).run(), Exit::Syscall);
    assert_eq!(g.regs.rax, 0x0202_0202_0202_0202, "the new target is read");
    g.machine.discard(DATA_GPA + 0x9000, 0x1000).unwrap();
    assert_eq!(g.at(0).run(), Exit::Syscall);
    assert_eq!(g.regs.rax, 0, "a discarded page reads as zeroes");
}

#[test]
fn table_pages_are_used_again_in_other_roles_after_a_full_zap() {
    use crate::pagetable::Translations;
    let mut g = Guest::new(b"\x48\x8b\x07\x0f\x05");
    let rw = Access { write: true, exec: false };
    for round in 0..40u64 {
        let root = g.machine.create_root().unwrap();
        g.machine.map(root, CODE, CODE_GPA, 0x1000, Access { write: false, exec: true }).unwrap();
        let (va, gpa) = (0x1000_0000 + round * 0x4000_0000, DATA_GPA + (round + 1) * 0x1_0000);
        g.machine.write(gpa, &round.to_le_bytes()).unwrap();
        g.machine.map(root, va, gpa, 0x1000, rw).unwrap();
        g.regs.rdi = va;
        g.root = root;
        assert_eq!(g.at(0).run(), Exit::Syscall);
        assert_eq!(g.regs.rax, round);
        g.machine.unmap(root, va, 0x1000).unwrap();
        g.machine.unmap(root, CODE, 0x1000).unwrap();
        g.machine.destroy_root(root);
        // Zaps, because a virtual machine exists, and gives the pages back in another order.
        assert!(g.machine.slots.live());
        g.machine.tables.machine_gone().unwrap();
    }
}

#[test]
fn a_truncated_file_is_a_fault_of_the_task_that_touches_it() {
    use std::os::fd::AsFd;
    // 0: mov rax,[rdi]; syscall   5: mov [rdi],rax; syscall
    let mut g = Guest::new(b"\x48\x8b\x07\x0f\x05\x48\x89\x07\x0f\x05");
    let f = std::fs::File::from(rustix::fs::memfd_create("t", rustix::fs::MemfdFlags::CLOEXEC).unwrap());
    f.set_len(0x3000).unwrap();
    g.machine.attach_file(DATA_GPA, 0x3000, f.as_fd(), 0, false).unwrap();
    for page in [0, 0x1000, 0x2000] {
        g.regs.rdi = DATA + page;
        assert_eq!(g.at(5).run(), Exit::Syscall, "the file is long enough");
    }
    f.set_len(0x1000).unwrap();
    for page in [0x1000, 0x2000] {
        for offset in [0, 5] {
            g.regs.rdi = DATA + page;
            assert_eq!(g.at(offset).run(), Exit::BadMemory);
            assert_eq!(g.regs.rip, CODE + offset);
        }
        assert!(g.machine.read(DATA_GPA + page, &mut [0; 8]).is_err());
    }
    g.regs.rdi = DATA;
    assert_eq!(g.at(5).run(), Exit::Syscall, "the vCPU goes on");
    // Code that is gone.
    g.machine.attach_file(CODE_GPA, 0x1000, f.as_fd(), 0x1000, false).unwrap();
    assert_eq!(g.at(0).run(), Exit::BadMemory);
    g.machine.detach_file(CODE_GPA, 0x1000).unwrap();
    g.machine.write(CODE_GPA, b"\x0f\x05").unwrap();
    assert_eq!(g.at(0).run(), Exit::Syscall);
}

/// What user code reads at an address after pages of an address space that is gone came back in other places, with or without a full zap
/// before. Every leaf that was taken away was invalidated, as always: what is left over is above the leaves.
fn read_after_reuse(zap: bool) -> u64 {
    use crate::pagetable::Translations;
    const TABLE: u64 = 0x27;
    const LEAF: u64 = 0x67;
    let mut g = Guest::new(b"\x48\x8b\x07\x0f\x05");
    let page = |n: u64| layout::POOL_END - n * 0x1000;
    let (root, l3, l2, code, old, new) = (page(6), page(5), page(4), page(3), page(2), page(1));
    let set = |g: &Guest, table: Gpa, index: u64, value: u64| {
        g.machine.arena().entry(table + index * 8).unwrap().store(value, Ordering::Release);
    };
    let window = g.machine.arena().entry(g.root.0 + 255 * 8).unwrap().load(Ordering::Acquire);
    for (table, index, value) in [
        (root, 255, window),
        (root, 0, l3 | TABLE),
        (l3, 0, l2 | TABLE),
        (l2, 2, code | TABLE),
        (code, 0, CODE_GPA | LEAF),
        (l2, 4, old | TABLE),
        (old, 0, DATA_GPA | LEAF),
    ] {
        set(&g, table, index, value);
    }
    for n in 0..3u64 {
        g.machine.write(DATA_GPA + n * 0x1000, &(n + 1).to_le_bytes()).unwrap();
    }
    g.root = Root(root);
    g.regs.rdi = 0x80_0000;
    assert_eq!((g.at(0).run(), g.regs.rax), (Exit::Syscall, 1));
    // The first life ends: the leaf goes, with its invalidation.
    set(&g, old, 0, 0);
    g.machine.arena().invalidate(DATA_GPA, 0x1000).unwrap();
    if zap {
        g.machine.slots.full_zap().unwrap();
    }
    // The second one: the old table elsewhere, another one where it was. The processor follows a link that KVM made in the first life,
    // finds a leaf there, and KVM never learns of it.
    set(&g, l2, 5, old | TABLE);
    set(&g, old, 0, (DATA_GPA + 0x2000) | LEAF);
    set(&g, l2, 4, new | TABLE);
    set(&g, new, 0, (DATA_GPA + 0x1000) | LEAF);
    g.regs.rdi = 0xa0_0000;
    assert_eq!((g.at(0).run(), g.regs.rax), (Exit::Syscall, 3));
    g.regs.rdi = 0x80_0000;
    assert_eq!(g.at(0).run(), Exit::Syscall);
    g.regs.rax
}

#[test]
fn without_a_full_zap_a_table_page_in_a_new_role_shows_what_it_held_before() {
    assert_eq!(read_after_reuse(true), 2, "with the zap the new tables count");
    let without = read_after_reuse(false);
    eprintln!("without a full zap user code reads page {without} where page 2 is mapped");
    // Page 3 where KVM shadows page tables. With EPT or NPT only what the processor itself remembers could be old.
    assert!(matches!(without, 2 | 3), "{without}");
}

//! Ring-3 programs that try to break out of their level, to forge exits, or to wedge the vCPU. These need /dev/kvm.
//!
//! After each attempt the same vCPU must run an innocent program as if nothing had happened.

use super::tests::{CODE, DATA, Guest};
use super::*;
use guest::platform::{Access, Platform, Vcpu};

/// The innocent program lies behind every attempt: mov eax, 39; syscall.
const INNOCENT: u64 = 0xf00;

fn guest(code: &[u8]) -> Guest {
    let mut page = vec![0xccu8; 0x1000];
    page[..code.len()].copy_from_slice(code);
    page[INNOCENT as usize..][..7].copy_from_slice(b"\xb8\x27\0\0\0\x0f\x05");
    Guest::new(&page)
}

/// A vCPU that still works makes a system call, and takes an exception with the right frame.
fn still_works(g: &mut Guest, after: &str) {
    let regs = g.regs.clone();
    g.regs = Regs { rip: CODE + INNOCENT, rsp: DATA + 0x8000, rflags: 0x202, ..Regs::default() };
    assert_eq!(g.run(), Exit::Syscall, "after {after}");
    assert_eq!(
        (g.regs.rax, g.regs.rip, g.regs.rsp),
        (39, CODE + INNOCENT + 7, DATA + 0x8000),
        "after {after}"
    );
    assert_eq!(g.run(), Exit::Exception { vector: 3, error: 0, cr2: 0 }, "after {after}");
    g.regs = regs;
}

fn denied(e: Exit) -> bool {
    matches!(e, Exit::Illegal | Exit::Exception { vector: 6 | 13, .. })
}

#[test]
fn privileged_instructions_are_faults_of_the_task() {
    let attempts: &[(&str, &[u8])] = &[
        ("hlt", b"\xf4"),
        ("cli", b"\xfa"),
        ("sti", b"\xfb"),
        ("in al, dx", b"\xec"),
        ("out dx, al", b"\xee"),
        ("out 0x10, ax", b"\x66\xe7\x10"),
        ("out 0x10, eax", b"\xe7\x10"),
        ("out 0x0f, ax", b"\x66\xe7\x0f"),
        ("out 0x7f, al", b"\xe6\x7f"),
        ("out 0x80, al", b"\xe6\x80"),
        ("rep outsb", b"\xf3\x6e"),
        ("rep insb", b"\xf3\x6c"),
        ("in al, 0x10", b"\xe4\x10"),
        ("out 0x10, al", b"\xe6\x10"),
        ("mov rax, cr0", b"\x0f\x20\xc0"),
        ("mov cr3, rax", b"\x0f\x22\xd8"),
        ("mov cr4, rax", b"\x0f\x22\xe0"),
        ("mov cr8, rax", b"\x44\x0f\x22\xc0"),
        ("mov dr7, rax", b"\x0f\x23\xf8"),
        ("mov rax, dr6", b"\x0f\x21\xf0"),
        ("lgdt", b"\x0f\x01\x17"),
        ("lidt", b"\x0f\x01\x1f"),
        ("lldt ax", b"\x0f\x00\xd0"),
        ("ltr ax", b"\x0f\x00\xd8"),
        ("lmsw ax", b"\x0f\x01\xf0"),
        ("clts", b"\x0f\x06"),
        ("invd", b"\x0f\x08"),
        ("wbinvd", b"\x0f\x09"),
        ("invlpg", b"\x0f\x01\x3f"),
        ("invpcid", b"\x66\x0f\x38\x82\x07"),
        ("rdmsr", b"\x0f\x32"),
        ("wrmsr", b"\x0f\x30"),
        ("rdpmc", b"\x0f\x33"),
        ("xsetbv", b"\x0f\x01\xd1"),
        ("swapgs", b"\x0f\x01\xf8"),
        ("sysretq", b"\x48\x0f\x07"),
        ("sysexit", b"\x48\x0f\x35"),
        ("sysenter", b"\x0f\x34"),
        ("rsm", b"\x0f\xaa"),
        ("vmxon", b"\xf3\x0f\xc7\x37"),
        ("vmlaunch", b"\x0f\x01\xc2"),
        ("vmptrld", b"\x0f\xc7\x37"),
        ("vmread", b"\x0f\x78\xc0"),
        ("vmrun", b"\x0f\x01\xd8"),
        ("stgi", b"\x0f\x01\xdc"),
        ("vmfunc", b"\x0f\x01\xd4"),
        ("monitor", b"\x0f\x01\xc8"),
        ("mwait", b"\x0f\x01\xc9"),
        ("vmcall", b"\x0f\x01\xc1"),
        ("vmmcall", b"\x0f\x01\xd9"),
        ("encls", b"\x0f\x01\xcf"),
        ("xsaves", b"\x0f\xc7\x2f"),
        ("ud2", b"\x0f\x0b"),
        ("lock nop", b"\xf0\x90"),
        ("16 prefixes", b"\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x66\x90"),
    ];
    // Hosts emulate these for user mode in one way or another (as nothing, or with an error in rax): no harm.
    let harmless = ["monitor", "mwait", "vmcall", "vmmcall", "vmfunc"];
    let mut code = Vec::new();
    for (name, bytes) in attempts {
        assert!(bytes.len() <= 16);
        code.extend_from_slice(bytes);
        // int3 behind each.
        code.resize(code.len().next_multiple_of(32), 0xcc);
        assert!(code.len() <= INNOCENT as usize, "{name}");
    }
    let mut g = guest(&code);
    for (i, (name, _)) in attempts.iter().enumerate() {
        for rdx in [0x10, 0x20, 0xffff] {
            g.regs = Regs { rsp: DATA + 0x8000, rflags: 0x202, ..Regs::default() };
            (g.regs.rdi, g.regs.rsi, g.regs.rcx, g.regs.rdx) = (DATA, DATA + 0x1000, 1 << 40, rdx);
            let e = g.at(i as u64 * 32).run();
            let through = e == Exit::Exception { vector: 3, error: 0, cr2: 0 };
            assert!(denied(e) || harmless.contains(name) && through, "{name} rdx={rdx:#x}: {e:?}");
            still_works(&mut g, name);
        }
    }
}

#[test]
fn every_software_interrupt_but_those_of_user_mode_is_refused() {
    let code: Vec<u8> = (0..=255u8).flat_map(|n| [0xcd, n]).collect();
    let mut g = guest(&code);
    for n in 0..=255u64 {
        g.regs.rsp = DATA + 0x8000;
        let e = g.at(n * 2).run();
        let wanted = match n {
            3 | 4 => e == Exit::Exception { vector: n as u8, error: 0, cr2: 0 },
            // Some hosts know no gates beyond the exceptions and say so in another way.
            _ => matches!(e, Exit::Exception { vector: 13, error, .. } if error == n * 8 + 2) || denied(e),
        };
        assert!(wanted, "int {n}: {e:?}");
    }
    still_works(&mut g, "int n");
}

#[test]
fn no_segment_leads_to_another_mode_or_level() {
    // 0: mov ds, eax; int3    8: mov ss, eax; int3    16: call far [rdi]   24: lar ebx, eax; int3  32: push rax; push rbx; retfq
    let mut code = vec![0xcc; 64];
    code[..2].copy_from_slice(b"\x8e\xd8");
    code[8..10].copy_from_slice(b"\x8e\xd0");
    code[16..19].copy_from_slice(b"\x48\xff\x1f");
    code[24..27].copy_from_slice(b"\x0f\x02\xd8");
    code[32..36].copy_from_slice(b"\x50\x53\x48\xcb");
    let mut g = guest(&code);
    // A table of call gates at address 0, where a local descriptor table would be after a reset.
    let gpa = 42 << 20;
    g.machine.map(g.root, 0, gpa, 0x1000, Access { write: true, exec: true }).unwrap();
    let [a, b, c, d, e, f, h, i] = CODE.to_le_bytes();
    for n in 0..256u64 {
        let gate = [a, b, 8, 0, 0, 0xec, c, d, e, f, h, i, 0, 0, 0, 0];
        g.machine.write(gpa + n * 16, &gate).unwrap();
    }
    let trap = Exit::Exception { vector: 3, error: 0, cr2: 0 };
    // Without hardware virtualisation the processor uses the host's own table: its user segments are there then, and nothing else is.
    let ours = g.machine.facts().unwrap().syscall_level == 0;
    for selector in 4..0x60u64 {
        let user = matches!(selector & !3, 0x20 | 0x28) || !ours && selector & !3 >= 0x30;
        for offset in [0, 8] {
            g.regs.rax = selector;
            g.regs.rsp = DATA + 0x8000;
            let e = g.at(offset).run();
            let fault = matches!(e, Exit::Exception { vector: 10..=13, .. })
                || !ours && matches!(e, Exit::Exception { vector: 6, .. });
            assert!(fault || user && e == trap, "selector {selector:#x}: {e:?}");
        }
        if user && ours {
            continue;
        }
        g.machine.write(41 << 20, &(CODE + 0x100).to_le_bytes()).unwrap();
        g.machine.write((41 << 20) + 8, &(selector as u16).to_le_bytes()).unwrap();
        g.regs.rdi = DATA;
        let far_call = g.at(16).run();
        (g.regs.rax, g.regs.rbx) = (selector, CODE + 0x100);
        let far_return = g.at(32).run();
        for e in [far_call, far_return] {
            let fault = matches!(e, Exit::Exception { vector: 6 | 11..=14, .. });
            let harmless = !ours && (e == trap || e == Exit::Illegal);
            assert!(fault || harmless, "far to {selector:#x}: {e:?}");
        }
        still_works(&mut g, "segments");
    }
    still_works(&mut g, "segments");
}

#[test]
fn the_trap_flag_traps_the_task_and_never_the_stub() {
    // 0: nop; nop; mov eax, 39; syscall; nop; nop    16: mov ss, eax; syscall   32: icebp
    let mut code = vec![0x90; 64];
    code[2..9].copy_from_slice(b"\xb8\x27\0\0\0\x0f\x05");
    code[16..20].copy_from_slice(b"\x8e\xd0\x0f\x05");
    code[32] = 0xf1;
    let mut g = guest(&code);
    let trap = Exit::Exception { vector: 1, error: 0, cr2: 0 };
    g.regs.rflags = 0x302;
    for at in [1, 2, 7] {
        assert_eq!(g.run(), trap);
        assert_eq!(g.regs.rip, CODE + at);
        assert_ne!(g.regs.rflags & 0x100, 0, "the flag is in the frame");
    }
    // The call itself: it is made once, and the flag is still the caller's.
    let e = g.run();
    assert_eq!((e, g.regs.rax, g.regs.rip), (Exit::Syscall, 39, CODE + 9));
    assert_ne!(g.regs.rflags & 0x100, 0);
    assert_eq!(g.run(), trap);
    assert_eq!(g.regs.rip, CODE + 10);
    g.regs.rax = u64::from(stub::USER_DS);
    let e = g.at(16).run();
    assert!(e == trap || e == Exit::Syscall, "{e:?}");
    g.regs.rflags = 0x202;
    assert_eq!(g.at(32).run(), trap);
    // Behind the instruction; a host that emulates it may say where it is.
    assert!(matches!(g.regs.rip - CODE, 32 | 33), "{:#x}", g.regs.rip);
    still_works(&mut g, "single steps");
}

#[test]
fn flags_that_a_program_sets_do_not_reach_the_stub() {
    // 0: mov rax,[rdi]; int3   8: push rax; popfq; syscall; int3   16: ud2
    let mut code = vec![0xcc; 32];
    code[..3].copy_from_slice(b"\x48\x8b\x07");
    code[8..12].copy_from_slice(b"\x50\x9d\x0f\x05");
    code[16..18].copy_from_slice(b"\x0f\x0b");
    let mut g = guest(&code);
    g.regs.rdi = DATA + 1;
    g.regs.rflags = 0x4_0202;
    let e = g.at(0).run();
    assert!(
        matches!(e, Exit::Exception { vector: 17 | 3, error: 0, .. }),
        "alignment check, where the host has it: {e:?}"
    );
    // AC, NT, IOPL 3, DF, RF, VM, VIF, VIP, ID: what popf takes of them at level 3 is the task's business.
    g.regs.rflags = 0x202;
    for flags in [0x4_0000, 0x4000, 0x3000, 0x400, 0x1_0000, 0x2_0000, 0x18_0000, 0x20_0000, !0x100] {
        g.regs.rax = flags;
        g.regs.rsp = DATA + 0x8000;
        assert_eq!(g.at(8).run(), Exit::Syscall, "{flags:#x}");
        assert_eq!(g.regs.rflags & 0x3_b000, 0, "{flags:#x}: {:#x}", g.regs.rflags);
        let e = g.at(16).run();
        assert_eq!(e, Exit::Exception { vector: 6, error: 0, cr2: 0 }, "{flags:#x}");
    }
    still_works(&mut g, "flags");
}

#[test]
fn a_stack_pointer_that_leads_nowhere_is_no_obstacle_to_a_trap() {
    // 0: syscall   2: ud2   4: push rax; int3   8: mov rax, [rsp]; int3
    let mut g = guest(b"\x0f\x05\x0f\x0b\x50\xcc\xcc\xcc\x48\x8b\x04\x24\xcc");
    let stack = stub::stack_top(0);
    for rsp in [0, 1, 8, 1 << 60, u64::MAX, stack, stack - 48, stack - 40, layout::window(layout::GDT) + 64] {
        g.regs.rsp = rsp;
        assert_eq!(g.at(0).run(), Exit::Syscall, "{rsp:#x}");
        assert_eq!(g.regs.rsp, rsp);
        assert_eq!(g.at(2).run(), Exit::Exception { vector: 6, error: 0, cr2: 0 }, "{rsp:#x}");
        assert_eq!((g.regs.rsp, g.regs.rip), (rsp, CODE + 2));
        let e = g.at(4).run();
        assert!(matches!(e, Exit::Exception { vector: 12..=14, .. }), "{rsp:#x}: {e:?}");
        g.regs.rsp = rsp;
        still_works(&mut g, "a bad stack");
    }
}

#[test]
fn a_jump_into_the_stub_is_at_most_a_system_call_of_the_jumper() {
    // 0: jmp rdi
    let mut g = guest(b"\xff\xe7");
    let mut targets: Vec<u64> = (0..=255u8).map(stub::exception_entry).collect();
    targets.dedup();
    targets.extend(targets.clone().iter().map(|t| t + stub::OUT_LEN));
    targets.extend([stub::syscall_entry() + 1, stub::syscall_entry() + 2, layout::window(layout::GDT)]);
    targets.extend([layout::WINDOW, layout::window(layout::stack_top(0)) - 64, layout::WINDOW - 1]);
    for rip in targets {
        for below in [0, 40, 48] {
            for flags in [0x202, 0x302] {
                g.regs = Regs { rdi: rip, rsp: stub::stack_top(0) - below, rflags: flags, ..Regs::default() };
                let e = if flags == 0x202 { g.at(0).run() } else { g.at(0).run_from(rip) };
                let fault = matches!(e, Exit::Exception { vector: 1 | 6 | 13 | 14, .. });
                assert!(e == Exit::Illegal || fault, "{rip:#x}-{below}: {e:?}");
            }
        }
    }
    // The system-call entry itself: rcx and r11 are the jumper's, whatever they hold.
    for rcx in [CODE, 0, 1 << 60, u64::MAX, stub::syscall_entry()] {
        g.regs = Regs { rdi: stub::syscall_entry(), rcx, r11: u64::MAX, rax: 39, ..Regs::default() };
        let e = g.at(0).run();
        assert!(e == Exit::Syscall && g.regs.rip == rcx || denied(e), "{rcx:#x}: {e:?}");
        assert_eq!(g.regs.rflags & 0x3_b000, 0, "no level, no nested task: {:#x}", g.regs.rflags);
        let e = g.run();
        assert!(e != Exit::Preempted, "{rcx:#x} and on: {e:?}");
    }
    still_works(&mut g, "jumps into the stub");
}

#[test]
fn protection_keys_of_a_program_do_not_hinder_a_trap() {
    // mov eax, -1; xor ecx, ecx; xor edx, edx; wrpkru; syscall; ud2; mov rax, [rdi]
    let mut g = guest(b"\xb8\xff\xff\xff\xff\x31\xc9\x31\xd2\x0f\x01\xef\x0f\x05\x0f\x0b\x48\x8b\x07");
    if !g.machine.host().pku {
        return;
    }
    g.regs.rdi = DATA;
    assert_eq!(g.run(), Exit::Syscall);
    assert_eq!(g.run(), Exit::Exception { vector: 6, error: 0, cr2: 0 });
    let e = g.at(16).run();
    assert!(matches!(e, Exit::Exception { vector: 14, error, cr2: DATA } if error & 0x25 == 0x25), "{e:?}");
    g.vcpu.reset_xstate();
    still_works(&mut g, "wrpkru");
}

#[test]
fn a_return_from_interrupt_of_user_code_goes_nowhere_new() {
    // iretq
    let mut g = guest(b"\x48\xcf");
    let (cs, ss) = (u64::from(stub::USER_CS), u64::from(stub::USER_DS));
    let frames: [[u64; 5]; 6] = [
        [CODE, u64::from(stub::KERNEL_CS), 0x202, DATA, 0x10],
        [CODE, 0, 0x202, DATA, 0],
        [CODE, 0x1b, 0x202, DATA, ss],
        [1 << 60, cs, 0x202, DATA, ss],
        [stub::exception_entry(14), cs, 0x202, stub::stack_top(0) - 48, ss],
        [CODE + INNOCENT, cs, !0x100, DATA + 0x8000, ss],
    ];
    for (i, frame) in frames.iter().enumerate() {
        for (n, word) in frame.iter().enumerate() {
            g.machine.write((41 << 20) + 0x8000 + n as u64 * 8, &word.to_le_bytes()).unwrap();
        }
        g.regs.rsp = DATA + 0x8000;
        g.regs.rflags = 0x202;
        let e = g.at(0).run();
        if i == 5 {
            assert_eq!(e, Exit::Syscall);
        } else {
            assert!(matches!(e, Exit::Illegal | Exit::Exception { vector: 11..=14, .. }), "frame {i}: {e:?}");
        }
        still_works(&mut g, "iretq");
    }
}

#[test]
fn the_upper_half_shows_nothing_of_the_host() {
    // 0: mov rax,[rdi]   3: mov [rdi],rax
    let mut g = guest(b"\x48\x8b\x07\x48\x89\x07");
    // What lies there differs from one address, and one boot, to the next.
    let spread = (0..128).map(|i| 0xffff_8000_0000_0000 + i * 0x100_4020_1000);
    for va in spread.chain([0xffff_ffff_8100_0000, u64::MAX - 7]) {
        for (offset, error) in [(0, 4), (3, 6)] {
            g.regs.rdi = va;
            assert_eq!(g.at(offset).run(), Exit::Exception { vector: 14, error, cr2: va });
        }
    }
}

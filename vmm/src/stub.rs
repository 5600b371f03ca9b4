//! The stub: the only ring-0 code of the guest, and the tables that lead to it.
//!
//! Every trap ends at an `out` instruction whose port tells which trap it was; the VM exit follows at once and
//! nothing of the stub runs after it. The page is user-readable and executable, because on hosts without hardware
//! virtualisation the `syscall` entry runs at privilege level 3; user code that jumps into it is told apart
//! by the vCPU's state ([`crate::vcpu`]).

use crate::layout;
use guest::platform::{Gpa, Va};
use std::arch::global_asm;

/// Port of the system-call stub.
pub const PORT_SYSCALL: u16 = 0x10;
/// Port of exception `v` is this plus `v`.
pub const PORT_EXCEPTION: u16 = 0x20;
/// Port of the gate of vectors 32..=255, which user code cannot reach (`int n` raises #GP there).
pub const PORT_OTHER: u16 = 0x40;
/// Bytes of an `out imm8, al`.
pub const OUT_LEN: u64 = 2;

/// Selector of the stub's code segment.
pub const KERNEL_CS: u16 = 0x08;
/// Selector of user data.
pub const USER_DS: u16 = 0x23;
/// Selector of user code.
pub const USER_CS: u16 = 0x2b;
/// Selector of the task state segment.
pub const TSS: u16 = 0x30;

// Each entry is 8 bytes, so that entry and address follow from each other. The hlt after each out is never
// reached: should a host continue there, it stops instead of running on.
global_asm!(
    ".pushsection .rodata.coppice_stub,\"a\",@progbits",
    ".balign 16",
    ".globl coppice_stub_start",
    ".globl coppice_stub_touch",
    ".globl coppice_stub_end",
    "coppice_stub_start:",
    "out 0x10, al",
    "hlt",
    ".balign 8, 0xf4",
    ".set coppice_vector, 0",
    ".rept 32",
    ".byte 0xe6, 0x20 + coppice_vector",
    ".balign 8, 0xf4",
    ".set coppice_vector, coppice_vector + 1",
    ".endr",
    "out 0x40, al",
    ".balign 8, 0xf4",
    // User-mode routine that touches a list of pages: rsi = list of addresses (bit 0 set: write), rdi = its end.
    "coppice_stub_touch:",
    "2: cmp rsi, rdi",
    "jae 4f",
    "mov rax, [rsi]",
    "add rsi, 8",
    "test al, 1",
    "jnz 3f",
    "mov al, [rax]",
    "jmp 2b",
    "3: and rax, -2",
    "lock or byte ptr [rax], 0",
    "jmp 2b",
    "4: mov eax, {magic}",
    "syscall",
    "ud2",
    "coppice_stub_end:",
    ".popsection",
    magic = const TOUCH_MAGIC,
);

/// What the touch routine leaves in eax.
pub const TOUCH_MAGIC: u32 = 0x7000_c4ed;

unsafe extern "C" {
    static coppice_stub_start: u8;
    static coppice_stub_touch: u8;
    static coppice_stub_end: u8;
}

/// The stub's bytes.
pub fn code() -> &'static [u8] {
    let (start, end) = (&raw const coppice_stub_start, &raw const coppice_stub_end);
    // SAFETY: both symbols delimit read-only bytes that the assembly above emitted in this order.
    unsafe { std::slice::from_raw_parts(start, end.addr() - start.addr()) }
}

/// Address of the system-call entry.
pub const fn syscall_entry() -> Va {
    layout::window(layout::STUB)
}

/// Address of an exception's entry.
pub const fn exception_entry(vector: u8) -> Va {
    let slot = if vector < 32 { vector as u64 + 1 } else { 33 };
    syscall_entry() + slot * 8
}

/// Address of the routine that touches pages from user mode.
pub fn touch_entry() -> Va {
    let offset = (&raw const coppice_stub_touch).addr() - (&raw const coppice_stub_start).addr();
    syscall_entry() + offset as u64
}

/// Whether the processor pushes an error code for a vector.
pub const fn has_error_code(vector: u8) -> bool {
    matches!(vector, 8 | 10 | 11 | 12 | 13 | 14 | 17 | 21 | 29 | 30)
}

/// The global descriptor table: null, kernel code, kernel data, nothing, user data, user code, task state segment (two entries).
/// Segment bases and limits that count are in the vCPU's registers. The fourth entry is where `star` has 32-bit user code; it stays
/// empty, because on AMD `syscall` in compatibility mode would go, at privilege level 0, to an address of its own (CSTAR).
pub fn gdt() -> [u64; 8] {
    const KERNEL_CODE: u64 = 0x00af_9b00_0000_ffff;
    const KERNEL_DATA: u64 = 0x00cf_9300_0000_ffff;
    const USER_DATA: u64 = 0x00cf_f300_0000_ffff;
    const USER_CODE: u64 = 0x00af_fb00_0000_ffff;
    let base = layout::window(layout::tss(0));
    let low =
        0x0000_8b00_0000_0000 | (TSS_LEN as u64 - 1) | (base & 0xff_ffff) << 16 | (base >> 24 & 0xff) << 56;
    [0, KERNEL_CODE, KERNEL_DATA, 0, USER_DATA, USER_CODE, low, base >> 32]
}

/// The interrupt descriptor table: 256 interrupt gates. Breakpoint and overflow may be raised by user code itself.
pub fn idt() -> Vec<u8> {
    let mut table = Vec::with_capacity(4096);
    for vector in 0..=255u8 {
        let [a, b, c, d, e, f, g, h] = exception_entry(vector).to_le_bytes();
        let kind = if matches!(vector, 3 | 4) { 0xee } else { 0x8e };
        let [s0, s1] = KERNEL_CS.to_le_bytes();
        table.extend_from_slice(&[a, b, s0, s1, 0, kind, c, d, e, f, g, h, 0, 0, 0, 0]);
    }
    table
}

/// Bytes of a task state segment without and with its I/O bitmap (ports 0..=0x7f and the byte of ones that ends it).
const TSS_HEAD: usize = 0x68;
/// See [`task_state`].
pub const TSS_LEN: usize = TSS_HEAD + 16 + 1;

/// A task state segment whose ring-0 stack ends at `top`. At privilege level 3 its I/O bitmap allows no port, or (`stub_at_user_level`)
/// that of the system-call stub alone, one byte wide: where the stub runs at level 3 it needs it. User code gains nothing by it: its own
/// `out` there is an exit at an address that is not the stub's, and a jump to the stub is a system call of the jumper.
pub fn task_state(top: Va, stub_at_user_level: bool) -> [u8; TSS_LEN] {
    let mut tss = [0xff; TSS_LEN];
    tss[..TSS_HEAD].fill(0);
    tss[4..12].copy_from_slice(&top.to_le_bytes());
    tss[0x66..0x68].copy_from_slice(&(TSS_HEAD as u16).to_le_bytes());
    if stub_at_user_level {
        tss[TSS_HEAD + usize::from(PORT_SYSCALL / 8)] &= !(1 << (PORT_SYSCALL % 8));
    }
    tss
}

/// The exception stack of a vCPU ends here (guest-virtual).
pub const fn stack_top(vcpu: usize) -> Va {
    layout::window(layout::stack_top(vcpu))
}

/// Where the window keeps the page of a window address.
pub const fn gpa_of_window(va: Va) -> Gpa {
    va - layout::WINDOW
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_entry_is_an_out_to_its_own_port() {
        let code = code();
        assert_eq!(code[..2], [0xe6, PORT_SYSCALL as u8]);
        for v in 0..32u8 {
            let at = (exception_entry(v) - syscall_entry()) as usize;
            assert_eq!(code[at..at + 2], [0xe6, PORT_EXCEPTION as u8 + v], "vector {v}");
        }
        for v in 32..=255u8 {
            let at = (exception_entry(v) - syscall_entry()) as usize;
            assert_eq!(code[at..at + 2], [0xe6, PORT_OTHER as u8], "vector {v}");
        }
        assert!(code.len() <= 4096);
        assert!(touch_entry() > exception_entry(255));
    }

    #[test]
    fn gates_point_at_their_entries() {
        let idt = idt();
        assert_eq!(idt.len(), 4096);
        let gate = &idt[14 * 16..15 * 16];
        let at = u64::from(u16::from_le_bytes([gate[0], gate[1]]))
            | u64::from(u16::from_le_bytes([gate[6], gate[7]])) << 16
            | u64::from(u32::from_le_bytes([gate[8], gate[9], gate[10], gate[11]])) << 32;
        assert_eq!(at, exception_entry(14));
        assert_eq!((idt[3 * 16 + 5], idt[14 * 16 + 5]), (0xee, 0x8e));
    }
}

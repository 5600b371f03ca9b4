//! The signal frame of x86-64 (`struct rt_sigframe`) as bytes: laying one out, and reading one back.
//!
//! Pure functions: user memory is the caller's. Layout: Linux's asm/sigcontext.h and asm/ucontext.h. From the frame's
//! address: pretcode (8 bytes), ucontext (304), siginfo (128); the XSAVE image lies above it, 64-byte aligned.

use super::{AltStack, SigInfo};
use crate::num::{align_down, u64_of, us};
use crate::platform::{Regs, Va};

/// Bytes of the frame without its XSAVE image.
pub const FRAME_LEN: usize = 440;
/// Offset of the ucontext.
pub const UCONTEXT: u64 = 8;
/// Offset of the siginfo.
pub const SIGINFO: u64 = 312;
const STACK: usize = 24;
const MCONTEXT: usize = 48;
const SIGMASK: usize = 304;
/// UC_FP_XSTATE | UC_SIGCONTEXT_SS | UC_STRICT_RESTORE_SS.
const UC_FLAGS: u64 = 7;
/// FP_XSTATE_MAGIC1.
pub const MAGIC1: u32 = 0x4650_5853;
/// FP_XSTATE_MAGIC2, right after the image.
pub const MAGIC2: u32 = 0x4650_5845;
/// Offset of the software-reserved bytes in the legacy region.
pub const SW_RESERVED: usize = 464;
/// User code and stack selectors, as Linux shows them.
const CS: u16 = 0x33;
const SS: u16 = 0x2b;
/// Bits of rflags that a program may set: CF PF AF ZF SF TF DF OF RF AC.
pub const USER_FLAGS: u64 = 0x5_0dd5;
/// Bytes below rsp that leaf functions use.
const RED_ZONE: u64 = 128;

/// Reads a little-endian number; 0 beyond the end.
pub fn le64(b: &[u8], at: usize) -> u64 {
    at.checked_add(8)
        .and_then(|end| b.get(at..end))
        .and_then(|s| <[u8; 8]>::try_from(s).ok())
        .map_or(0, u64::from_le_bytes)
}

/// Reads a little-endian number; 0 beyond the end.
pub fn le32(b: &[u8], at: usize) -> u32 {
    at.checked_add(4)
        .and_then(|end| b.get(at..end))
        .and_then(|s| <[u8; 4]>::try_from(s).ok())
        .map_or(0, u32::from_le_bytes)
}

/// Writes bytes at an offset; nothing beyond the end.
pub fn put(b: &mut [u8], at: usize, bytes: &[u8]) {
    if let Some(to) = at.checked_add(bytes.len()).and_then(|end| b.get_mut(at..end)) {
        to.copy_from_slice(bytes);
    }
}

/// Where a frame's parts go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The frame: rsp of the handler.
    pub frame: Va,
    /// The XSAVE image.
    pub fpstate: Va,
}

/// Finds the place of a frame. `None` when it does not fit on the alternate stack or wraps: SIGSEGV.
pub fn place(rsp: Va, alt: &AltStack, on_stack: bool, xstate_len: usize) -> Option<Place> {
    let nested = alt.contains(rsp);
    let entering = on_stack && alt.enabled() && !nested;
    let sp = if entering { alt.sp.checked_add(alt.size)? } else { rsp.checked_sub(RED_ZONE)? };
    let fpstate = align_down(sp.checked_sub(u64_of(xstate_len) + 4)?, 64);
    let frame = align_down(fpstate.checked_sub(u64_of(FRAME_LEN))?, 16).checked_sub(8)?;
    if (nested || entering) && !alt.spans(frame) {
        return None;
    }
    Some(Place { frame, fpstate })
}

/// What a frame says besides registers.
#[derive(Clone, Copy, Debug, Default)]
pub struct Extra {
    /// Error code of the last exception.
    pub error: u64,
    /// Its vector.
    pub trapno: u64,
    /// The last page fault's address.
    pub cr2: u64,
    /// Mask that rt_sigreturn restores.
    pub mask: u64,
}

/// The frame's bytes.
pub fn build(
    regs: &Regs,
    extra: &Extra,
    alt: &AltStack,
    restorer: Va,
    fpstate: Va,
    info: Option<&SigInfo>,
) -> Vec<u8> {
    let mut b = vec![0; FRAME_LEN];
    put(&mut b, 0, &restorer.to_le_bytes());
    put(&mut b, us(UCONTEXT), &UC_FLAGS.to_le_bytes());
    put(&mut b, STACK, &alt.sp.to_le_bytes());
    put(&mut b, STACK + 8, &alt.flags_shown(regs.rsp).to_le_bytes());
    put(&mut b, STACK + 16, &alt.size.to_le_bytes());
    let words = [
        regs.r8,
        regs.r9,
        regs.r10,
        regs.r11,
        regs.r12,
        regs.r13,
        regs.r14,
        regs.r15,
        regs.rdi,
        regs.rsi,
        regs.rbp,
        regs.rbx,
        regs.rdx,
        regs.rax,
        regs.rcx,
        regs.rsp,
        regs.rip,
        regs.rflags,
    ];
    for (i, w) in words.iter().enumerate() {
        put(&mut b, MCONTEXT + i * 8, &w.to_le_bytes());
    }
    put(&mut b, MCONTEXT + 144, &CS.to_le_bytes());
    put(&mut b, MCONTEXT + 150, &SS.to_le_bytes());
    put(&mut b, MCONTEXT + 152, &extra.error.to_le_bytes());
    put(&mut b, MCONTEXT + 160, &extra.trapno.to_le_bytes());
    put(&mut b, MCONTEXT + 168, &extra.mask.to_le_bytes());
    put(&mut b, MCONTEXT + 176, &extra.cr2.to_le_bytes());
    put(&mut b, MCONTEXT + 184, &fpstate.to_le_bytes());
    put(&mut b, SIGMASK, &extra.mask.to_le_bytes());
    if let Some(info) = info {
        put(&mut b, us(SIGINFO), &info.to_bytes());
    }
    b
}

/// The XSAVE image as it goes to user memory: software-reserved bytes filled in, magic number behind it.
pub fn build_fpstate(mut image: Vec<u8>, xcr0: u64) -> Vec<u8> {
    let size = u32::try_from(image.len()).unwrap_or(u32::MAX);
    put(&mut image, SW_RESERVED, &[0; 48]);
    put(&mut image, SW_RESERVED, &MAGIC1.to_le_bytes());
    put(&mut image, SW_RESERVED + 4, &size.saturating_add(4).to_le_bytes());
    put(&mut image, SW_RESERVED + 8, &xcr0.to_le_bytes());
    put(&mut image, SW_RESERVED + 16, &size.to_le_bytes());
    image.extend(MAGIC2.to_le_bytes());
    image
}

/// The size of the whole XSAVE image that the legacy region (512 bytes) announces, when it does so credibly.
pub fn announced_xstate(legacy: &[u8], limit: usize) -> Option<usize> {
    let size = us(u64::from(le32(legacy, SW_RESERVED + 16)));
    let extended = us(u64::from(le32(legacy, SW_RESERVED + 4)));
    (le32(legacy, SW_RESERVED) == MAGIC1 && size >= 576 && size <= limit && extended >= size).then_some(size)
}

/// What rt_sigreturn takes from a frame.
#[derive(Clone, Debug)]
pub struct Restored {
    /// General registers; segment bases are the old ones.
    pub regs: Regs,
    /// Signal mask.
    pub mask: u64,
    /// The alternate stack to restore.
    pub alt: AltStack,
    /// Where the extended state is; 0 for none.
    pub fpstate: Va,
}

/// Reads a frame. Only bits of rflags that a program may change are taken. `None` when it would return to an address
/// that user code cannot have.
pub fn parse(b: &[u8], old: &Regs) -> Option<Restored> {
    let w = |i: usize| le64(b, MCONTEXT + i * 8);
    let regs = Regs {
        r8: w(0),
        r9: w(1),
        r10: w(2),
        r11: w(3),
        r12: w(4),
        r13: w(5),
        r14: w(6),
        r15: w(7),
        rdi: w(8),
        rsi: w(9),
        rbp: w(10),
        rbx: w(11),
        rdx: w(12),
        rax: w(13),
        rcx: w(14),
        rsp: w(15),
        rip: w(16),
        rflags: (old.rflags & !USER_FLAGS) | (w(17) & USER_FLAGS),
        fs_base: old.fs_base,
        gs_base: old.gs_base,
    };
    if b.len() < FRAME_LEN || regs.rip >= 1 << 47 {
        return None;
    }
    Some(Restored {
        regs,
        mask: le64(b, SIGMASK),
        alt: AltStack { sp: le64(b, STACK), flags: le32(b, STACK + 8), size: le64(b, STACK + 16) },
        fpstate: le64(b, MCONTEXT + 184),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Regs {
        Regs { rsp: 0x7000_1000, rip: 0x40_1000, rax: 1, rflags: 0x202, r8: 8, r15: 15, ..Regs::default() }
    }

    #[test]
    fn fields_lie_where_glibc_reads_them() {
        let extra = Extra { error: 6, trapno: 14, cr2: 0xdead, mask: 0xf0 };
        let info = SigInfo { signo: 11, code: 1, fields: [0xdead, 0, 0, 0], ..SigInfo::default() };
        let b = build(&sample(), &extra, &AltStack::default(), 0x1234, 0x5540, Some(&info));
        let uc = 8;
        assert_eq!(le64(&b, 0), 0x1234);
        assert_eq!(le64(&b, uc), 7);
        // ucontext_t of glibc: gregs[23] at 40 in the order of REG_R8..REG_CR2, fpregs at 224.
        assert_eq!(le64(&b, uc + 40), 8);
        assert_eq!(le64(&b, uc + 40 + 15 * 8), 0x7000_1000);
        assert_eq!(le64(&b, uc + 40 + 16 * 8), 0x40_1000);
        assert_eq!(le64(&b, uc + 40 + 17 * 8), 0x202);
        assert_eq!(le64(&b, uc + 40 + 18 * 8), 0x002b_0000_0000_0033);
        assert_eq!(le64(&b, uc + 40 + 19 * 8), 6);
        assert_eq!(le64(&b, uc + 40 + 20 * 8), 14);
        assert_eq!(le64(&b, uc + 40 + 22 * 8), 0xdead);
        assert_eq!(le64(&b, uc + 224), 0x5540);
        assert_eq!(le64(&b, uc + 296), 0xf0);
        assert_eq!(le32(&b, us(SIGINFO)), 11);
        assert_eq!(le64(&b, us(SIGINFO) + 16), 0xdead);
    }

    #[test]
    fn the_frame_is_aligned_as_the_abi_wants_and_spares_the_red_zone() {
        for rsp in 0x7000_1000..0x7000_1040 {
            let p = place(rsp, &AltStack::default(), true, 2696).unwrap();
            assert_eq!((p.frame + 8) % 16, 0);
            assert_eq!(p.fpstate % 64, 0);
            assert!(p.fpstate + 2700 <= rsp - 128);
            assert!(p.frame + u64_of(FRAME_LEN) <= p.fpstate);
        }
    }

    #[test]
    fn a_frame_that_does_not_fit_is_refused() {
        let alt = AltStack { sp: 0x10000, size: 2048, flags: 0 };
        assert_eq!(place(0x7000_1000, &alt, true, 2696), None);
        assert_eq!(place(64, &AltStack::default(), false, 576), None);
        let alt = AltStack { sp: 0x10000, size: 8192, flags: 0 };
        let p = place(0x7000_1000, &alt, true, 2696).unwrap();
        assert!(p.frame > 0x10000 && p.fpstate < 0x12000);
    }

    #[test]
    fn a_frame_reads_back_and_keeps_privileged_flags() {
        let regs = sample();
        let mut b = build(&regs, &Extra::default(), &AltStack::default(), 0, 0, None);
        put(&mut b, MCONTEXT + 17 * 8, &u64::MAX.to_le_bytes());
        let r = parse(&b, &regs).unwrap();
        assert_eq!(r.regs.rflags, 0x202 | USER_FLAGS);
        assert_eq!(r.regs.r15, 15);
        put(&mut b, MCONTEXT + 16 * 8, &(1u64 << 47).to_le_bytes());
        assert!(parse(&b, &regs).is_none());
    }

    #[test]
    fn the_xsave_image_announces_itself() {
        let b = build_fpstate(vec![0; 832], 7);
        assert_eq!(announced_xstate(&b, 832), Some(832));
        assert_eq!(announced_xstate(&b, 576), None);
        assert_eq!(le32(&b, 832), MAGIC2);
    }
}

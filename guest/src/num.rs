//! Checked and exact integer conversions: `as` is denied in this crate.
//!
//! The crate only builds for 64-bit targets, so `usize` and `u64` convert exactly.

const _: () = assert!(usize::BITS == 64);

/// `u64` to `usize`, exact on this crate's targets.
#[inline]
pub fn us(x: u64) -> usize {
    usize::try_from(x).unwrap_or(usize::MAX)
}

/// `usize` to `u64`, exact on this crate's targets.
#[inline]
pub fn u64_of(x: usize) -> u64 {
    u64::try_from(x).unwrap_or(u64::MAX)
}

/// The low 32 bits of a register.
#[inline]
pub fn low32(x: u64) -> u32 {
    u32::try_from(x & 0xffff_ffff).unwrap_or(0)
}

/// The low 32 bits of a register as a signed number: how the kernel reads an `int` argument.
#[inline]
pub fn int(x: u64) -> i32 {
    low32(x).cast_signed()
}

/// The low 16 bits.
#[inline]
pub fn low16(x: u64) -> u16 {
    u16::try_from(x & 0xffff).unwrap_or(0)
}

/// The low 8 bits.
#[inline]
pub fn low8(x: u64) -> u8 {
    u8::try_from(x & 0xff).unwrap_or(0)
}

/// Rounds up to a multiple of `align` (a power of two); `None` on overflow.
#[inline]
pub fn align_up(x: u64, align: u64) -> Option<u64> {
    Some(x.checked_add(align - 1)? & !(align - 1))
}

/// Rounds down to a multiple of `align` (a power of two).
#[inline]
pub fn align_down(x: u64, align: u64) -> u64 {
    x & !(align - 1)
}

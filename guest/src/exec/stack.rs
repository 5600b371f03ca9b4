//! The initial stack: strings, auxiliary vector, pointers, as the x86-64 System V ABI (section 3.4.1) lays them out.

use crate::errno::Errno;
use crate::num::{align_down, u64_of};
use crate::platform::{PAGE_SIZE, Va};

/// An initial stack as bytes, and where its parts lie.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stack {
    /// Contents of `sp..top`.
    pub bytes: Vec<u8>,
    /// Initial stack pointer, 16-byte aligned; argc is there.
    pub sp: Va,
    /// Argument strings.
    pub args: (Va, Va),
    /// Environment strings.
    pub env: (Va, Va),
    /// The auxiliary vector's bytes.
    pub auxv: Vec<u8>,
}

/// What goes onto an initial stack.
#[derive(Clone, Copy, Debug)]
pub struct Contents<'a> {
    /// Arguments.
    pub argv: &'a [Vec<u8>],
    /// Environment.
    pub envp: &'a [Vec<u8>],
    /// Path of the program as execve got it (AT_EXECFN).
    pub execfn: &'a [u8],
    /// AT_RANDOM's bytes.
    pub random: [u8; 16],
    /// The other entries of the auxiliary vector.
    pub aux: &'a [(u64, u64)],
}

/// AT_RANDOM, AT_EXECFN, AT_PLATFORM.
const AT_PLATFORM: u64 = 15;
const AT_RANDOM: u64 = 25;
const AT_EXECFN: u64 = 31;

/// Lays out a stack that ends at `top` and may not be longer than `limit` bytes. E2BIG.
pub fn build(top: Va, limit: u64, c: &Contents<'_>) -> Result<Stack, Errno> {
    let mut strings = Vec::new();
    let mut push = |s: &[u8]| {
        let at = u64_of(strings.len());
        strings.extend_from_slice(s);
        strings.push(0);
        at
    };
    let argv: Vec<u64> = c.argv.iter().map(|s| push(s)).collect();
    let envp: Vec<u64> = c.envp.iter().map(|s| push(s)).collect();
    let execfn = push(c.execfn);
    let platform = push(b"x86_64");
    // The environment follows the arguments at once: what sets a process's title writes over both.
    let length = |list: &[Vec<u8>]| list.iter().fold(0, |sum, s| sum + u64_of(s.len()) + 1);
    let args_end = length(c.argv);
    let env_end = args_end + length(c.envp);
    // The last eight bytes of a stack are zero.
    strings.extend([0; 8]);
    let base = top.checked_sub(u64_of(strings.len())).ok_or(Errno::E2BIG)?;
    let random = align_down(base, 16) - 16;
    let words = 1 + argv.len() + 1 + envp.len() + 1 + 2 * (c.aux.len() + 4);
    let sp = align_down(random.checked_sub(u64_of(words) * 8).ok_or(Errno::E2BIG)?, 16);
    if top - sp > limit.saturating_sub(PAGE_SIZE) {
        return Err(Errno::E2BIG);
    }
    let mut auxv = Vec::new();
    let own = [(AT_RANDOM, random), (AT_EXECFN, base + execfn), (AT_PLATFORM, base + platform), (0, 0)];
    for (key, value) in c.aux.iter().chain(&own) {
        auxv.extend(key.to_le_bytes());
        auxv.extend(value.to_le_bytes());
    }
    let mut bytes = Vec::new();
    bytes.extend(u64_of(argv.len()).to_le_bytes());
    for list in [&argv, &envp] {
        for at in list {
            bytes.extend((base + at).to_le_bytes());
        }
        bytes.extend([0; 8]);
    }
    bytes.extend(&auxv);
    bytes.resize(crate::num::us(random - sp), 0);
    bytes.extend(c.random);
    bytes.resize(crate::num::us(base - sp), 0);
    bytes.extend(strings);
    Ok(Stack { bytes, sp, args: (base, base + args_end), env: (base + args_end, base + env_end), auxv })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(s: &Stack, i: usize) -> u64 {
        u64::from_le_bytes(s.bytes[8 * i..8 * i + 8].try_into().unwrap())
    }

    #[test]
    fn pointers_lead_to_their_strings() {
        let (argv, envp) = (vec![b"prog".to_vec(), b"".to_vec()], vec![b"A=1".to_vec()]);
        let c =
            Contents { argv: &argv, envp: &envp, execfn: b"/bin/prog", random: [7; 16], aux: &[(6, 4096)] };
        let s = build(0x7000_0000, 1 << 20, &c).unwrap();
        assert_eq!(s.sp % 16, 0);
        assert_eq!(s.sp + u64_of(s.bytes.len()), 0x7000_0000);
        assert_eq!(word(&s, 0), 2);
        let string = |va: u64| {
            let at = usize::try_from(va - s.sp).unwrap();
            s.bytes[at..].split(|b| *b == 0).next().unwrap().to_vec()
        };
        assert_eq!(string(word(&s, 1)), b"prog");
        assert_eq!(string(word(&s, 2)), b"");
        assert_eq!(word(&s, 3), 0);
        assert_eq!(string(word(&s, 4)), b"A=1");
        assert_eq!(word(&s, 5), 0);
        assert_eq!((word(&s, 6), word(&s, 7)), (6, 4096));
        assert_eq!(word(&s, 8), AT_RANDOM);
        let random = usize::try_from(word(&s, 9) - s.sp).unwrap();
        assert_eq!(s.bytes[random..random + 16], [7; 16]);
        assert_eq!(string(word(&s, 11)), b"/bin/prog");
        assert_eq!(string(word(&s, 13)), b"x86_64");
        assert_eq!(s.args.1 - s.args.0, 6);
        assert_eq!(s.env.1 - s.env.0, 4);
    }

    #[test]
    fn too_much_for_the_stack_is_e2big() {
        let argv = vec![vec![b'a'; 100_000]];
        let c = Contents { argv: &argv, envp: &[], execfn: b"x", random: [0; 16], aux: &[] };
        assert_eq!(build(0x7000_0000, 65_536, &c), Err(Errno::E2BIG));
    }
}

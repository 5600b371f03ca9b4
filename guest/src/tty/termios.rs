//! `struct termios` of the kernel and its flags (termios(3), ioctl_tty(2)).

use serde::{Deserialize, Serialize};

/// Flags and indices by their names in termios(3).
#[allow(missing_docs)]
pub mod flag {
    pub const ISTRIP: u32 = 0o40;
    pub const INLCR: u32 = 0o100;
    pub const IGNCR: u32 = 0o200;
    pub const ICRNL: u32 = 0o400;
    pub const IUCLC: u32 = 0o1000;
    pub const IXON: u32 = 0o2000;
    pub const IXANY: u32 = 0o4000;
    pub const IMAXBEL: u32 = 0o20000;
    pub const IUTF8: u32 = 0o40000;
    pub const PARMRK: u32 = 0o10;

    pub const OPOST: u32 = 0o1;
    pub const OLCUC: u32 = 0o2;
    pub const ONLCR: u32 = 0o4;
    pub const OCRNL: u32 = 0o10;
    pub const ONOCR: u32 = 0o20;
    pub const ONLRET: u32 = 0o40;
    pub const TABDLY: u32 = 0o14000;

    pub const CSIZE: u32 = 0o60;
    pub const CS8: u32 = 0o60;
    pub const CREAD: u32 = 0o200;
    pub const PARENB: u32 = 0o400;

    pub const ISIG: u32 = 0o1;
    pub const ICANON: u32 = 0o2;
    pub const ECHO: u32 = 0o10;
    pub const ECHOE: u32 = 0o20;
    pub const ECHOK: u32 = 0o40;
    pub const ECHONL: u32 = 0o100;
    pub const NOFLSH: u32 = 0o200;
    pub const TOSTOP: u32 = 0o400;
    pub const ECHOCTL: u32 = 0o1000;
    pub const ECHOPRT: u32 = 0o2000;
    pub const ECHOKE: u32 = 0o4000;
    pub const IEXTEN: u32 = 0o100_000;

    pub const VINTR: usize = 0;
    pub const VQUIT: usize = 1;
    pub const VERASE: usize = 2;
    pub const VKILL: usize = 3;
    pub const VEOF: usize = 4;
    pub const VTIME: usize = 5;
    pub const VMIN: usize = 6;
    pub const VSTART: usize = 8;
    pub const VSTOP: usize = 9;
    pub const VSUSP: usize = 10;
    pub const VEOL: usize = 11;
    pub const VREPRINT: usize = 12;
    pub const VWERASE: usize = 14;
    pub const VLNEXT: usize = 15;
    pub const VEOL2: usize = 16;
}

/// Bytes of `struct termios` (TCGETS).
pub const LEN: usize = 36;
/// Bytes of `struct termios2` (TCGETS2).
pub const LEN2: usize = 44;
/// Offset of c_line; the control characters follow it.
const LINE: usize = 16;

/// A terminal's modes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Termios {
    /// c_iflag.
    pub input: u32,
    /// c_oflag.
    pub output: u32,
    /// c_cflag.
    pub control: u32,
    /// c_lflag.
    pub local: u32,
    /// c_line.
    pub line: u8,
    /// c_cc.
    pub chars: [u8; 19],
    /// c_ispeed and c_ospeed, baud.
    pub speeds: [u32; 2],
}

impl Default for Termios {
    /// What a new pseudoterminal has.
    fn default() -> Self {
        Termios {
            input: flag::ICRNL | flag::IXON,
            output: flag::OPOST | flag::ONLCR,
            // B38400.
            control: 0o17 | flag::CS8 | flag::CREAD,
            local: flag::ISIG
                | flag::ICANON
                | flag::ECHO
                | flag::ECHOE
                | flag::ECHOK
                | flag::ECHOCTL
                | flag::ECHOKE
                | flag::IEXTEN,
            line: 0,
            chars: [3, 28, 127, 21, 4, 0, 1, 0, 17, 19, 26, 0, 18, 15, 23, 22, 0, 0, 0],
            speeds: [38400; 2],
        }
    }
}

impl Termios {
    /// Whether a local mode is on.
    pub fn has(&self, local: u32) -> bool {
        self.local & local != 0
    }

    /// A control character; 0 is disabled.
    pub fn char(&self, index: usize) -> u8 {
        self.chars.get(index).copied().unwrap_or(0)
    }

    /// Whether `c` is that control character, and it is not disabled.
    pub fn is(&self, index: usize, c: u8) -> bool {
        c != 0 && self.char(index) == c
    }

    /// As the kernel's `struct termios2`, of which `struct termios` is the beginning.
    pub fn to_bytes(self) -> [u8; LEN2] {
        let mut b = [0; LEN2];
        let words = [self.input, self.output, self.control, self.local];
        for (to, x) in b.chunks_exact_mut(4).zip(words) {
            to.copy_from_slice(&x.to_le_bytes());
        }
        let tail = std::iter::once(self.line).chain(self.chars);
        let speeds = self.speeds.into_iter().flat_map(u32::to_le_bytes);
        for (to, x) in b.iter_mut().skip(LINE).zip(tail.chain(speeds)) {
            *to = x;
        }
        b
    }

    /// Reads `struct termios`, or `struct termios2` where there are that many bytes. A pseudoterminal's characters always have 8 bits, and
    /// its receiver is always on.
    pub fn from_bytes(b: &[u8], old: &Termios) -> Self {
        let word = |i: usize| crate::signal::frame::le32(b, i * 4);
        let mut chars = [0; 19];
        for (to, x) in chars.iter_mut().zip(b.iter().skip(LINE + 1)) {
            *to = *x;
        }
        let control = word(2) & !(flag::CSIZE | flag::PARENB) | flag::CS8 | flag::CREAD;
        let speeds = if b.len() >= LEN2 { [word(9), word(10)] } else { old.speeds };
        Termios {
            input: word(0),
            output: word(1),
            control,
            local: word(3),
            line: b.get(LINE).copied().unwrap_or(0),
            chars,
            speeds,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_read_back_as_they_were_written() {
        let t = Termios { input: 5, local: 9, chars: [7; 19], ..Termios::default() };
        assert_eq!(Termios::from_bytes(&t.to_bytes(), &Termios::default()), t);
        assert_eq!(Termios::from_bytes(&t.to_bytes()[..LEN], &t), t);
    }
}

//! Printing system calls with decoded arguments and results.

use crate::kernel::Kernel;
use crate::num::{int, low32, us};
use crate::syscall::{Arg, entry};
use crate::task::{Call, Tid};
use crate::wait::{Outcome, SysResult};

/// Where lines go.
#[derive(Debug)]
pub struct Sink {
    /// The host descriptor that lines are written to.
    pub fd: std::os::fd::OwnedFd,
}

/// Bytes of a buffer that are shown.
const SHOWN: usize = 32;

fn escaped(bytes: &[u8], more: bool) -> String {
    let mut s = String::from("\"");
    for b in bytes {
        s.extend(b.escape_ascii().map(char::from));
    }
    s.push('"');
    if more {
        s.push_str("...");
    }
    s
}

/// Names of the set bits (or of the value), the rest in hexadecimal.
fn flags(names: &[(&str, u64)], value: u64) -> String {
    if let Some((name, _)) = names.iter().find(|(_, v)| *v == value) {
        return (*name).to_string();
    }
    let (mut parts, mut rest) = (Vec::new(), value);
    for (name, v) in names {
        if *v != 0 && rest & v == *v {
            parts.push((*name).to_string());
            rest &= !v;
        }
    }
    if rest != 0 || parts.is_empty() {
        parts.push(format!("{rest:#x}"));
    }
    parts.join("|")
}

const SIGNALS: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE",
    "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ",
    "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];

impl Kernel {
    /// Prints one finished call when tracing is on.
    pub fn trace_call(&mut self, tid: Tid, call: &Call, result: &SysResult) {
        if self.strace.is_none() {
            return;
        }
        let name =
            entry(call.number).map_or_else(|| format!("syscall_{}", call.number), |e| e.name.to_string());
        let kinds: &[Arg] = entry(call.number).map_or(&[Arg::Hex; 6], |e| e.args);
        let args: Vec<String> = kinds
            .iter()
            .zip(call.args)
            .map(|(kind, value)| self.show(tid, call, *kind, value, result))
            .collect();
        let outcome = match result {
            Ok(Outcome::Return(v)) if *v > 0xffff_ffff => format!("{v:#x}"),
            Ok(Outcome::Return(v)) => v.to_string(),
            Err(e) => format!("-1 {}", e.name()),
            Ok(_) => "?".to_string(),
        };
        let t = self.platform.monotonic();
        let line = format!(
            "[{tid}] {name}({}) = {outcome} ({}.{:06})\n",
            args.join(", "),
            t / 1_000_000_000,
            t % 1_000_000_000 / 1000
        );
        if let Some(sink) = &self.strace {
            // A trace that cannot be written is lost; the guest goes on.
            let _ = rustix::io::write(&sink.fd, line.as_bytes());
        }
    }

    fn show(&mut self, tid: Tid, call: &Call, kind: Arg, value: u64, result: &SysResult) -> String {
        match kind {
            Arg::Int | Arg::Fd => int(value).to_string(),
            Arg::Uint => value.to_string(),
            Arg::Hex => format!("{value:#x}"),
            Arg::Octal => format!("{:#o}", low32(value)),
            Arg::Ptr if value == 0 => "NULL".into(),
            Arg::Ptr => format!("{value:#x}"),
            Arg::DirFd if int(value) == crate::abi::AT_FDCWD => "AT_FDCWD".into(),
            Arg::DirFd => int(value).to_string(),
            Arg::Path => match self.copy_in_str(tid, value, crate::abi::PATH_MAX) {
                Ok(path) => escaped(&path, false),
                Err(_) => format!("{value:#x}"),
            },
            Arg::In(index) => {
                let len = call.args.get(index).copied().unwrap_or(0);
                self.show_buffer(tid, value, len)
            }
            Arg::Out => match result {
                Ok(Outcome::Return(len)) => self.show_buffer(tid, value, *len),
                _ => format!("{value:#x}"),
            },
            Arg::Signal => {
                let name = usize::try_from(int(value)).ok().and_then(|n| SIGNALS.get(n.checked_sub(1)?));
                name.map_or_else(|| int(value).to_string(), |n| format!("SIG{n}"))
            }
            Arg::Flags(names) => flags(names, value),
        }
    }

    fn show_buffer(&mut self, tid: Tid, va: u64, len: u64) -> String {
        let shown = us(len).min(SHOWN);
        match self.copy_in_vec(tid, va, shown) {
            Ok(bytes) => escaped(&bytes, us(len) > shown),
            Err(_) => format!("{va:#x}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_named_and_the_rest_is_shown() {
        let names = [("RDONLY", 0), ("CREAT", 0o100), ("EXCL", 0o200)];
        assert_eq!(flags(&names, 0), "RDONLY");
        assert_eq!(flags(&names, 0o300), "CREAT|EXCL");
        assert_eq!(flags(&names, 0o100 | 0x8_0000), "CREAT|0x80000");
    }

    #[test]
    fn buffers_are_escaped() {
        assert_eq!(escaped(b"a\n\x01\"", true), r#""a\n\x01\""..."#);
    }
}

//! The line discipline: what a terminal makes of the bytes that come from the keyboard and go to the screen (termios(3)).
//!
//! Pure functions on [`Tty`]: what has to happen outside (signals) is returned.

use super::termios::flag as f;
use super::{QUEUE, Tty};

/// Bytes of one line, and of input that waits to be read (N_TTY_BUF_SIZE).
pub const LINE_MAX: usize = 4096;
/// This cell ends a line.
pub const END: u16 = 0x100;
/// This cell is an end of file; its byte does not count.
pub const EOF: u16 = 0x200;
/// Packet-mode states (TIOCPKT, ioctl_tty(2)).
pub const PKT_FLUSHREAD: u8 = 1;
/// See [`PKT_FLUSHREAD`].
pub const PKT_FLUSHWRITE: u8 = 2;
const PKT_STOP: u8 = 4;
const PKT_START: u8 = 8;

fn cell(c: u8, mark: u16) -> u16 {
    u16::from(c) | mark
}

/// The kernel knows letters as ISO 8859-1 has them.
pub(super) fn is_latin_letter(c: u8) -> bool {
    c >= 0xc0 && c != 0xd7 && c != 0xf7
}

fn lower(c: u8) -> u8 {
    if c.is_ascii_uppercase() || (is_latin_letter(c) && c < 0xdf) { c | 0x20 } else { c }
}

fn upper(c: u8) -> u8 {
    if c.is_ascii_lowercase() || (is_latin_letter(c) && (0xe0..0xff).contains(&c)) { c & !0x20 } else { c }
}

pub(super) fn is_control(c: u8) -> bool {
    c < 32 || c == 127
}

impl Tty {
    /// Processes what came from the keyboard as far as there is room. Returns signals for the foreground group.
    pub fn pump(&mut self) -> Vec<u32> {
        let mut signals = Vec::new();
        while self.room_for_input()
            && let Some(c) = self.incoming.pop_front()
        {
            self.receive(c, &mut signals);
        }
        signals
    }

    /// Without a finished line the editor goes on: what does not fit in is dropped there.
    fn room_for_input(&self) -> bool {
        let waits = self.input.len() + self.line.len();
        waits < LINE_MAX - 1 || (self.termios.has(f::ICANON) && self.lines() == 0)
    }

    fn lines(&self) -> usize {
        self.ends
    }

    fn push(&mut self, c: u16) {
        self.ends += usize::from(c & END != 0);
        self.input.push_back(c);
    }

    fn receive(&mut self, c: u8, signals: &mut Vec<u32>) {
        let t = self.termios;
        let mut c = c;
        if t.input & f::ISTRIP != 0 {
            c &= 0x7f;
        }
        if t.input & f::IUCLC != 0 && t.has(f::IEXTEN) {
            c = lower(c);
        }
        if std::mem::take(&mut self.lnext) {
            return self.receive_plain(c);
        }
        if t.input & f::IXON != 0 {
            if t.is(f::VSTART, c) {
                return self.set_stopped(false);
            }
            if t.is(f::VSTOP, c) {
                return self.set_stopped(true);
            }
        }
        if t.has(f::ISIG) {
            for (index, signo) in [(f::VINTR, 2), (f::VQUIT, 3), (f::VSUSP, 20)] {
                if t.is(index, c) {
                    return self.receive_signal(c, signo, signals);
                }
            }
        }
        if self.stopped && t.input & (f::IXON | f::IXANY) == f::IXON | f::IXANY {
            self.set_stopped(false);
        }
        match c {
            b'\r' if t.input & f::IGNCR != 0 => return,
            b'\r' if t.input & f::ICRNL != 0 => c = b'\n',
            b'\n' if t.input & f::INLCR != 0 => c = b'\r',
            _ => {}
        }
        if t.has(f::ICANON) { self.edit(c) } else { self.receive_plain(c) }
    }

    fn receive_signal(&mut self, c: u8, signo: u32, signals: &mut Vec<u32>) {
        signals.push(signo);
        if !self.termios.has(f::NOFLSH) {
            self.flush_input();
            self.flush_output();
        }
        if self.termios.input & f::IXON != 0 {
            self.set_stopped(false);
        }
        if self.termios.has(f::ECHO) {
            self.echo(c);
        }
    }

    /// Stops or restarts output.
    pub fn set_stopped(&mut self, stop: bool) {
        if self.stopped != stop {
            self.stopped = stop;
            let (set, clear) = if stop { (PKT_STOP, PKT_START) } else { (PKT_START, PKT_STOP) };
            self.packet_status(set, clear);
        }
    }

    /// Notes a change for a master in packet mode.
    pub fn packet_status(&mut self, set: u8, clear: u8) {
        if self.packet {
            self.status = self.status & !clear | set;
        }
    }

    /// Canonical mode: the editing characters.
    fn edit(&mut self, c: u8) {
        let t = self.termios;
        let extended = t.has(f::IEXTEN);
        if t.is(f::VERASE, c) || t.is(f::VKILL, c) || (t.is(f::VWERASE, c) && extended) {
            return self.erase(c);
        }
        if t.is(f::VLNEXT, c) && extended {
            self.lnext = true;
            if t.has(f::ECHO) {
                self.finish_erasing();
                if t.has(f::ECHOCTL) {
                    self.echo_raw(b'^');
                    self.echo_raw(8);
                }
            }
            return;
        }
        if t.is(f::VREPRINT, c) && t.has(f::ECHO) && extended {
            self.finish_erasing();
            self.echo(c);
            self.echo_raw(b'\n');
            for c in self.line.clone() {
                self.echo(c);
            }
            return;
        }
        if c == b'\n' {
            if t.has(f::ECHO) || t.has(f::ECHONL) {
                self.echo_raw(b'\n');
            }
            return self.end_line(Some(cell(c, END)));
        }
        if t.is(f::VEOF, c) {
            return self.end_line(Some(cell(0, END | EOF)));
        }
        if t.is(f::VEOL, c) || (t.is(f::VEOL2, c) && extended) {
            if t.has(f::ECHO) {
                if self.line.is_empty() {
                    self.line_column = self.column;
                }
                self.echo(c);
            }
            self.double_mark(c);
            return self.end_line(Some(cell(c, END)));
        }
        self.receive_plain(c);
    }

    fn end_line(&mut self, last: Option<u16>) {
        for c in std::mem::take(&mut self.line) {
            self.push(cell(c, 0));
        }
        if let Some(last) = last {
            self.push(last);
        }
    }

    /// PARMRK: a byte of all ones is doubled.
    fn double_mark(&mut self, c: u8) {
        if c == 0xff && self.termios.input & (f::PARMRK | f::ISTRIP) == f::PARMRK {
            self.keep(c);
        }
    }

    fn keep(&mut self, c: u8) {
        if self.termios.has(f::ICANON) { self.line.push(c) } else { self.push(cell(c, 0)) }
    }

    /// A character without a meaning.
    fn receive_plain(&mut self, c: u8) {
        if self.termios.has(f::ICANON) && self.input.len() + self.line.len() >= LINE_MAX - 1 {
            if self.termios.input & f::IMAXBEL != 0 {
                self.echo_raw(7);
            }
            return;
        }
        if self.termios.has(f::ECHO) {
            self.finish_erasing();
            if c == b'\n' {
                self.echo_raw(c);
            } else {
                if self.line.is_empty() {
                    self.line_column = self.column;
                }
                self.echo(c);
            }
        }
        self.double_mark(c);
        self.keep(c);
    }

    /// Echoes a character, control characters as `^X` where asked for.
    pub(super) fn echo(&mut self, c: u8) {
        if self.termios.has(f::ECHOCTL) && is_control(c) && c != b'\t' {
            self.echo_raw(b'^');
            self.echo_raw(c ^ 0x40);
        } else {
            self.echo_raw(c);
        }
    }

    /// Echoes go out even when writers have to wait, but not without limit.
    pub(super) fn echo_raw(&mut self, c: u8) {
        if self.output.len() < 2 * QUEUE {
            self.put_char(c);
        }
    }

    /// Sends a START or STOP character to the other side (tcflow(3)), where there is one; it is lost on a side that does not read.
    pub fn send_flow(&mut self, c: u8) {
        if c != 0 && self.output.len() < 2 * QUEUE {
            self.output.push_back(c);
        }
    }

    /// Output processing of one character.
    fn put_char(&mut self, c: u8) {
        let t = self.termios;
        let has = |flag: u32| t.output & flag != 0;
        if !has(f::OPOST) {
            self.output.push_back(c);
            return;
        }
        let mut c = c;
        match c {
            b'\n' => {
                if has(f::ONLRET) {
                    self.column = 0;
                }
                if has(f::ONLCR) {
                    self.column = 0;
                    self.output.push_back(b'\r');
                }
            }
            b'\r' => {
                if has(f::ONOCR) && self.column == 0 {
                    return;
                }
                if has(f::OCRNL) {
                    c = b'\n';
                    if has(f::ONLRET) {
                        self.column = 0;
                    }
                } else {
                    self.column = 0;
                }
            }
            b'\t' => {
                let spaces = 8 - (self.column & 7);
                self.column += spaces;
                if t.output & f::TABDLY == f::TABDLY {
                    self.output.extend((0..spaces).map(|_| b' '));
                    return;
                }
            }
            8 => self.column = self.column.saturating_sub(1),
            _ => {
                if has(f::OLCUC) {
                    c = upper(c);
                }
                let joined = t.input & f::IUTF8 != 0 && c & 0xc0 == 0x80;
                if !is_control(c) && !joined {
                    self.column = self.column.saturating_add(1) & 0xff_ffff;
                }
            }
        }
        self.output.push_back(c);
    }

    /// Takes what a program writes as far as there is room; how many bytes that were.
    pub fn write(&mut self, data: &[u8]) -> usize {
        let mut n = 0;
        for c in data {
            if self.output.len() >= QUEUE || self.stopped {
                break;
            }
            self.put_char(*c);
            n += 1;
        }
        n
    }

    /// Whether a read has something: at least `min` bytes, or a line.
    pub fn readable(&self, min: usize) -> bool {
        if self.termios.has(f::ICANON) { self.ends > 0 } else { self.input.len() >= min.max(1) }
    }

    /// Bytes that FIONREAD counts.
    pub fn available(&self) -> usize {
        if !self.termios.has(f::ICANON) {
            return self.input.len();
        }
        let whole = self.input.iter().rposition(|c| c & END != 0).map_or(0, |at| at + 1);
        self.input.iter().take(whole).filter(|c| **c & EOF == 0).count()
    }

    /// Takes up to `n` bytes; in canonical mode no more than a line.
    pub fn take(&mut self, n: usize) -> Vec<u8> {
        let canonical = self.termios.has(f::ICANON);
        let mut out = Vec::new();
        while out.len() < n {
            let Some(c) = self.input.pop_front() else { break };
            let end = c & END != 0;
            self.ends -= usize::from(end);
            if c & EOF == 0 {
                out.push(crate::num::low8(u64::from(c)));
            }
            if end && canonical {
                break;
            }
        }
        out
    }

    /// Forgets input that was not read.
    pub fn flush_input(&mut self) {
        self.input.clear();
        self.line.clear();
        self.ends = 0;
        self.lnext = false;
        self.erasing = false;
        self.packet_status(PKT_FLUSHREAD, 0);
    }

    /// Forgets output that the master has not read.
    pub fn flush_output(&mut self) {
        self.output.clear();
        self.packet_status(PKT_FLUSHWRITE, 0);
    }

    /// Changes the modes. Input that waits becomes a line, or bytes, with them.
    pub fn set_termios(&mut self, new: super::Termios) {
        let old = std::mem::replace(&mut self.termios, new);
        let (was, is) = (old.has(f::ICANON), new.has(f::ICANON));
        if was != is {
            self.end_line(None);
            self.input.retain(|c| c & EOF == 0 || is);
            self.ends = 0;
            for c in &mut self.input {
                *c &= !END;
            }
            if let Some(last) = self.input.back_mut().filter(|_| is) {
                *last |= END;
                self.ends = 1;
            }
            self.lnext = false;
            self.erasing = false;
        }
        if old.input & f::IXON != 0 && new.input & f::IXON == 0 {
            self.set_stopped(false);
        }
        // TIOCPKT_NOSTOP and TIOCPKT_DOSTOP.
        let stops =
            |t: &super::Termios| t.input & f::IXON != 0 && t.char(f::VSTOP) == 19 && t.char(f::VSTART) == 17;
        match (stops(&old), stops(&new)) {
            (true, false) => self.packet_status(16, 32),
            (false, true) => self.packet_status(32, 16),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn feed(t: &mut Tty, bytes: &[u8]) -> Vec<u32> {
        t.incoming.extend(bytes);
        t.pump()
    }

    fn echoed(t: &mut Tty) -> String {
        String::from_utf8(t.output.drain(..).collect()).unwrap()
    }

    #[test]
    fn a_line_is_edited_before_it_is_read() {
        let mut t = Tty::default();
        feed(&mut t, b"one twp\x7fo thr\x17ab\x15x\x16\x03y\n");
        assert_eq!(t.take(100), b"x\x03y\n");
        feed(&mut t, b"ab cd\x17ef\n");
        assert_eq!(t.take(3), b"ab ");
        assert_eq!(t.take(100), b"ef\n");
        assert!(!t.readable(1));
    }

    #[test]
    fn echo_shows_what_was_typed_and_wipes_what_was_erased() {
        let mut t = Tty::default();
        feed(&mut t, b"a\x01\x7f\x7fb\r");
        assert_eq!(echoed(&mut t), "a^A\x08 \x08\x08 \x08\x08 \x08b\r\n");
        feed(&mut t, b"ab\tc\x7f\x7f\n");
        assert_eq!(echoed(&mut t), "ab\tc\x08 \x08\x08\x08\x08\x08\x08\x08\r\n");
    }

    #[test]
    fn flow_characters_do_not_pile_up_without_a_reader() {
        let mut t = Tty::default();
        for _ in 0..3 * QUEUE {
            t.send_flow(0x13);
        }
        assert_eq!(t.output.len(), 2 * QUEUE);
    }

    #[test]
    fn an_end_of_file_ends_a_line_without_a_byte() {
        let mut t = Tty::default();
        feed(&mut t, b"ab\x04\x04");
        assert_eq!(t.take(100), b"ab");
        assert!(t.readable(1));
        assert_eq!(t.take(100), b"");
        assert!(!t.readable(1));
    }

    #[test]
    fn signal_characters_signal_and_flush() {
        let mut t = Tty::default();
        assert_eq!(feed(&mut t, b"abc\x03"), [2]);
        assert_eq!(echoed(&mut t), "^C");
        assert_eq!(feed(&mut t, b"\x1a\x1c"), [20, 3]);
        feed(&mut t, b"\n");
        assert_eq!(t.take(100), b"\n");
    }

    #[test]
    fn raw_mode_passes_everything_and_a_change_of_mode_keeps_what_waits() {
        let mut t = Tty::default();
        feed(&mut t, b"par");
        let mut raw = t.termios;
        raw.local &= !(f::ICANON | f::ISIG | f::ECHO);
        raw.input &= !f::ICRNL;
        t.set_termios(raw);
        assert!(feed(&mut t, b"\x03\r\x7f").is_empty());
        assert_eq!(t.take(100), b"par\x03\r\x7f");
        feed(&mut t, b"xy");
        t.set_termios(Tty::default().termios);
        assert_eq!(t.take(100), b"xy");
    }

    #[test]
    fn stop_and_start_hold_output() {
        let mut t = Tty::default();
        feed(&mut t, b"\x13");
        assert_eq!(t.write(b"abc"), 0);
        feed(&mut t, b"\x11");
        assert_eq!(t.write(b"a\nb"), 3);
        assert_eq!(echoed(&mut t), "a\r\nb");
    }

    #[test]
    fn a_line_without_end_takes_bounded_memory() {
        let mut t = Tty::default();
        feed(&mut t, &[b'x'; 100_000]);
        assert!(t.line.len() < LINE_MAX && t.incoming.is_empty() && t.output.len() <= 2 * QUEUE);
        feed(&mut t, b"\n");
        assert_eq!(t.take(5000).len(), LINE_MAX);
    }
}

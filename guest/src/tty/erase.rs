//! Erasing in a line that is typed: what goes, and what the screen shows of it (termios(3): ECHOE, ECHOK, ECHOKE, ECHOPRT).

use super::Tty;
use super::ldisc::{is_control, is_latin_letter};
use super::termios::flag as f;

impl Tty {
    /// Ends what ECHOPRT shows of erased characters.
    pub(super) fn finish_erasing(&mut self) {
        if std::mem::take(&mut self.erasing) {
            self.echo_raw(b'/');
        }
    }

    /// ERASE, WERASE or KILL was typed.
    pub(super) fn erase(&mut self, c: u8) {
        let t = self.termios;
        if self.line.is_empty() {
            return;
        }
        let (kill, word) = (t.is(f::VKILL, c), !t.is(f::VERASE, c) && !t.is(f::VKILL, c));
        let wipes = [f::ECHO, f::ECHOK, f::ECHOKE, f::ECHOE].iter().all(|mode| t.has(*mode));
        if kill && !wipes {
            self.line.clear();
            if t.has(f::ECHO) {
                self.finish_erasing();
                self.echo(c);
                if t.has(f::ECHOK) {
                    self.echo_raw(b'\n');
                }
            }
            return;
        }
        let mut seen = false;
        while let Some(last) = self.line.last().copied() {
            let utf8 = t.input & f::IUTF8 != 0;
            let mut cut = self.line.len() - 1;
            while utf8 && cut > 0 && self.line.get(cut).is_some_and(|b| b & 0xc0 == 0x80) {
                cut -= 1;
            }
            let head = self.line.get(cut).copied().unwrap_or(last);
            // A continuation without its head.
            if utf8 && head & 0xc0 == 0x80 {
                break;
            }
            if word {
                if head.is_ascii_alphanumeric() || head == b'_' || is_latin_letter(head) {
                    seen = true;
                } else if seen {
                    break;
                }
            }
            let gone = self.line.split_off(cut);
            if t.has(f::ECHO) {
                self.echo_erasure(c, head, &gone);
            }
            if !kill && !word {
                break;
            }
        }
        if self.line.is_empty() && t.has(f::ECHO) {
            self.finish_erasing();
        }
    }

    fn echo_erasure(&mut self, by: u8, head: u8, gone: &[u8]) {
        let t = self.termios;
        if t.has(f::ECHOPRT) {
            if !self.erasing {
                self.echo_raw(b'\\');
                self.erasing = true;
            }
            for c in gone {
                self.echo(*c);
            }
        } else if t.is(f::VERASE, by) && !t.has(f::ECHOE) {
            self.echo(by);
        } else if head == b'\t' {
            // Back to where the tabulator started: the columns of what is left of the line.
            let width = self.line_width();
            let to = self.line_column.saturating_add(width);
            let columns = 8 - (to & 7);
            for _ in 0..columns.min(8) {
                self.echo_raw(8);
            }
        } else {
            let shown =
                if is_control(head) && t.has(f::ECHOCTL) { 2 } else { usize::from(!is_control(head)) };
            for _ in 0..shown {
                for c in [8, b' ', 8] {
                    self.echo_raw(c);
                }
            }
        }
    }

    fn line_width(&self) -> u32 {
        let mut column = self.line_column;
        for c in &self.line {
            match *c {
                b'\t' => column = (column | 7) + 1,
                c if is_control(c) => column += if self.termios.has(f::ECHOCTL) { 2 } else { 0 },
                c if self.termios.input & f::IUTF8 != 0 && c & 0xc0 == 0x80 => {}
                _ => column += 1,
            }
        }
        column - self.line_column
    }
}

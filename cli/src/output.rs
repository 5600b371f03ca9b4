//! Printing what may be a function's own words: on a terminal they are text, whatever they would tell it to do.

use std::borrow::Cow;
use std::fmt::Arguments;
use std::io::{self, IsTerminal, Write};

/// Prints a line.
pub fn line(to: &mut (impl Write + IsTerminal), text: Arguments<'_>) -> io::Result<()> {
    bytes(to, format!("{text}\n").as_bytes())
}

/// Prints text as it came: to a terminal with control characters shown, to a file or a pipe as it is.
pub fn bytes(to: &mut (impl Write + IsTerminal), text: &[u8]) -> io::Result<()> {
    if to.is_terminal() {
        return to.write_all(harmless(&String::from_utf8_lossy(text)).as_bytes());
    }
    to.write_all(text)
}

/// Text whose control characters, other than line ends and tabs, are written as Rust writes them.
fn harmless(text: &str) -> Cow<'_, str> {
    let harms = |c: char| c.is_control() && c != '\n' && c != '\t';
    if !text.contains(harms) {
        return text.into();
    }
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if harms(c) {
            shown.extend(c.escape_default());
        } else {
            shown.push(c);
        }
    }
    shown.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_shown() {
        let hostile = "\u{1b}]0;title\u{7}\u{9b}2Jna\u{ef}ve\r\u{8}\tok\n";
        assert_eq!(harmless(hostile), "\\u{1b}]0;title\\u{7}\\u{9b}2Jna\u{ef}ve\\r\\u{8}\tok\n");
        assert!(matches!(harmless("plain\n\ttext\u{e9}"), Cow::Borrowed(_)));
    }
}

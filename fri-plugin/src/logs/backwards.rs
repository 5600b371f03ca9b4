//! A file's lines from its end on, read a block at a time as they are asked for.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;

/// Bytes that are read at once.
const BLOCK: u64 = 64 << 10;
/// Bytes after which a line is none of ours: the texts of the longest are a few KiB, and each byte of them six where it is escaped.
const LONGEST: usize = 256 << 10;

/// Lines of a file without their ends, the last one first. It ends with the file's beginning, where the file cannot be read, or before
/// what is too long for a line.
#[derive(Debug)]
pub struct Backwards {
    file: File,
    /// Where what was read begins.
    at: u64,
    /// Bytes from there on that are not given out.
    held: Vec<u8>,
}

impl Backwards {
    /// From the end that the file has now.
    pub fn open(file: File) -> io::Result<Backwards> {
        let at = file.metadata()?.len();
        Ok(Backwards { file, at, held: Vec::new() })
    }

    fn read_more(&mut self) -> io::Result<()> {
        let bytes = self.at.min(BLOCK);
        let mut block = vec![0; usize::try_from(bytes).map_err(|_| ErrorKind::OutOfMemory)?];
        self.file.read_exact_at(&mut block, self.at - bytes)?;
        self.at -= bytes;
        block.append(&mut self.held);
        self.held = block;
        Ok(())
    }
}

impl Iterator for Backwards {
    type Item = Vec<u8>;

    fn next(&mut self) -> Option<Vec<u8>> {
        loop {
            if let Some(end) = self.held.iter().rposition(|b| *b == b'\n') {
                let line = self.held.split_off(end + 1);
                self.held.pop();
                return Some(line);
            }
            if self.at == 0 {
                return (!self.held.is_empty()).then(|| std::mem::take(&mut self.held));
            }
            if self.held.len() > LONGEST {
                return None;
            }
            self.read_more().ok()?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(bytes: &[u8]) -> Backwards {
        let mut file = tempfile::tempfile().unwrap();
        io::Write::write_all(&mut file, bytes).unwrap();
        Backwards::open(file).unwrap()
    }

    #[test]
    fn only_what_is_asked_for_is_read() {
        let mut text = vec![b'x'; 1 << 20];
        for at in (0..text.len()).step_by(100) {
            text[at] = b'\n';
        }
        let mut lines = of(&text);
        assert_eq!(lines.by_ref().take(10).count(), 10);
        assert_eq!(lines.at, (1 << 20) - BLOCK);
        assert!(lines.held.len() < usize::try_from(BLOCK).unwrap());
    }

    #[test]
    fn what_is_no_line_is_not_held() {
        let mut lines = of(&vec![b'x'; 4 << 20]);
        assert_eq!(lines.next(), None);
        assert!(lines.held.len() <= LONGEST + usize::try_from(BLOCK).unwrap());
    }

    proptest! {
        #[test]
        fn lines_are_those_of_the_file(lengths in prop::collection::vec(0..40_000usize, 0..8), ended: bool) {
            let lines: Vec<String> = (b'a'..).zip(lengths).map(|(c, n)| char::from(c).to_string().repeat(n)).collect();
            let mut text = lines.join("\n").into_bytes();
            if ended {
                text.push(b'\n');
            }
            let mut expected: Vec<Vec<u8>> = text.split(|b| *b == b'\n').rev().map(<[u8]>::to_vec).collect();
            // An empty beginning is no line.
            if expected.last().is_some_and(Vec::is_empty) {
                expected.pop();
            }
            prop_assert_eq!(of(&text).collect::<Vec<_>>(), expected);
        }
    }
}

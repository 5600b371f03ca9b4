//! The operator's terminal while a guest terminal is shown on it: raw mode, which ends however the command does, and its size.

use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcgetpgrp, tcgetwinsize, tcsetattr};
use std::io::{stdin, stdout};
use std::os::fd::AsFd;

/// When a guest terminal is made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum When {
    /// When standard input and output are a terminal, and this command is in its foreground
    #[default]
    Auto,
    /// Always; what is no terminal is copied to and from it
    Always,
    /// Never: the program gets this command's own streams
    Never,
}

impl When {
    /// Whether to make one here and now.
    pub fn resolve(self) -> bool {
        match self {
            When::Always => true,
            When::Never => false,
            When::Auto => {
                let foreground = tcgetpgrp(stdin()).is_ok_and(|group| group == rustix::process::getpgrp());
                isatty(stdin()) && isatty(stdout()) && foreground
            }
        }
    }
}

/// Raw mode of standard input; dropping it gives the old modes back.
pub struct Raw {
    saved: Option<Termios>,
}

impl Raw {
    /// Begins raw mode. Nothing happens where standard input is no terminal.
    pub fn enter() -> Raw {
        let saved = tcgetattr(stdin()).ok();
        let raw = Raw { saved };
        raw.again();
        raw
    }

    /// Begins it again, after a stop of this command gave the terminal to a shell.
    pub fn again(&self) {
        if let Some(saved) = &self.saved {
            let mut modes = saved.clone();
            modes.make_raw();
            let _ = tcsetattr(stdin(), OptionalActions::Now, &modes);
        }
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        if let Some(saved) = &self.saved {
            let _ = tcsetattr(stdin(), OptionalActions::Drain, saved);
        }
    }
}

/// `struct winsize` of the operator's terminal; zeros where there is none.
pub fn size() -> [u8; 8] {
    let size = tcgetwinsize(stdout().as_fd()).or_else(|_| tcgetwinsize(stdin().as_fd()));
    let Ok(size) = size else { return [0; 8] };
    let mut bytes = [0; 8];
    for (to, x) in bytes.chunks_exact_mut(2).zip([size.ws_row, size.ws_col, size.ws_xpixel, size.ws_ypixel]) {
        to.copy_from_slice(&x.to_le_bytes());
    }
    bytes
}

//! What ps(1) and top(1) call this process.

use std::ffi::CString;
use std::sync::OnceLock;

/// Longest name of a thread, bytes (PR_SET_NAME, prctl(2)).
const COMM: usize = 15;
/// Fields of /proc/PID/stat after the name, from the third on, up to arg_start, which is the 48th (proc_pid_stat(5)).
const ARG_START: usize = 48 - 3;

/// Where this process's arguments lie: address and bytes. A forked process has them at the same place.
static AREA: OnceLock<Option<(usize, usize)>> = OnceLock::new();

fn area() -> Option<(usize, usize)> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(ARG_START);
    let (start, end): (usize, usize) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    let bytes = end.checked_sub(start)?;
    (start != 0 && bytes > 1).then_some((start, bytes))
}

/// Gives this process a command line, cut where its arguments had less room, and the calling thread a name, cut after 15 bytes. One
/// system call, but for the first time. To be called while no other thread reads the arguments.
pub fn set(command: &str, name: &str) {
    if let Some((start, bytes)) = *AREA.get_or_init(area) {
        let command = &command.as_bytes()[..command.len().min(bytes - 1)];
        let to = std::ptr::with_exposed_provenance_mut::<u8>(start);
        // SAFETY: the kernel put the arguments there when this process, or the one that it was forked from, was executed: they are on the
        // main thread's stack, above all frames, writable, and stay for good. Nothing here holds a reference to them; who reads them as C
        // strings later finds an end, as the last byte is zero.
        unsafe {
            to.write_bytes(0, bytes);
            to.copy_from_nonoverlapping(command.as_ptr(), command.len());
        }
    }
    let name: Vec<u8> = name.bytes().filter(|b| *b != 0).take(COMM).collect();
    if let Ok(name) = CString::new(name) {
        // SAFETY: the name is a C string that is valid for the call, which copies it.
        unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr()) };
    }
}

//! Registers as tracers see them: `struct user_regs_struct` (sys/user.h), and what changing them means for a call in progress.

use crate::errno::Errno;
use crate::num::low32;
use crate::platform::{Regs, TASK_SIZE};
use crate::signal::frame::{USER_FLAGS, le64, put};
use crate::task::{Call, Task};

/// Bytes of `struct user_regs_struct`.
pub const LEN: usize = 27 * 8;
/// User code and stack selectors, as Linux shows them.
const CS: u64 = 0x33;
const SS: u64 = 0x2b;
const RAX: usize = 10;
const ORIG_RAX: usize = 15;
const RIP: usize = 16;

/// Selects a field in the order of the structure; `None` for those that are no register here.
fn field(r: &mut Regs, index: usize) -> Option<&mut u64> {
    Some(match index {
        0 => &mut r.r15,
        1 => &mut r.r14,
        2 => &mut r.r13,
        3 => &mut r.r12,
        4 => &mut r.rbp,
        5 => &mut r.rbx,
        6 => &mut r.r11,
        7 => &mut r.r10,
        8 => &mut r.r9,
        9 => &mut r.r8,
        RAX => &mut r.rax,
        11 => &mut r.rcx,
        12 => &mut r.rdx,
        13 => &mut r.rsi,
        14 => &mut r.rdi,
        RIP => &mut r.rip,
        18 => &mut r.rflags,
        19 => &mut r.rsp,
        21 => &mut r.fs_base,
        22 => &mut r.gs_base,
        _ => return None,
    })
}

/// The structure's bytes for a stopped tracee.
pub fn get(task: &Task) -> Vec<u8> {
    let mut regs = task.regs.clone();
    let mut b = vec![0; LEN];
    for index in 0..27 {
        let value = match index {
            ORIG_RAX => task.trace.as_ref().map_or(u64::MAX, |t| t.orig_rax),
            17 => CS,
            20 => SS,
            _ => field(&mut regs, index).map_or(0, |x| *x),
        };
        put(&mut b, index * 8, &value.to_le_bytes());
    }
    // A call's number is eax, and -1 says that there is none.
    let orig = le64(&b, ORIG_RAX * 8);
    put(&mut b, ORIG_RAX * 8, &i64::from(low32(orig).cast_signed()).to_le_bytes());
    b
}

/// Sets one field. EIO for what user code may not have: other segments, an address beyond user memory.
pub fn set(task: &mut Task, index: usize, value: u64) -> Result<(), Errno> {
    let old = task.regs.clone();
    let at_entry =
        task.trace.as_ref().and_then(|t| t.stop.as_ref()).is_some_and(|s| s.kind == super::Kind::Entry);
    match index {
        17 => return if value & 0xffff == CS { Ok(()) } else { Err(Errno::EIO) },
        20 => return if value & 0xffff == SS { Ok(()) } else { Err(Errno::EIO) },
        23..=26 => return if value & 0xffff == 0 { Ok(()) } else { Err(Errno::EIO) },
        21 | 22 if value >= TASK_SIZE => return Err(Errno::EIO),
        RIP if value >= 1 << 47 => return Err(Errno::EIO),
        ORIG_RAX => {
            if let Some(trace) = task.trace.as_mut() {
                let changed = low32(trace.orig_rax) != low32(value);
                trace.orig_rax = value;
                if changed && !at_entry {
                    forget_call(task);
                }
            }
            return Ok(());
        }
        _ => {}
    }
    let value = if index == 18 { old.rflags & !USER_FLAGS | value & USER_FLAGS } else { value };
    let Some(register) = field(&mut task.regs, index) else { return Err(Errno::EIO) };
    let changed = *register != value;
    *register = value;
    if changed && !at_entry && matches!(index, RAX | RIP) {
        forget_call(task);
    }
    Ok(())
}

/// The tracer has taken an interrupted call's continuation into its own hands: registers alone say how it goes on.
fn forget_call(task: &mut Task) {
    if task.aux.interrupted.take().is_some() {
        task.syscall = None;
        task.resume = None;
    }
}

/// The tracer lets a call be made, maybe another one, or none (a negative number).
pub(super) fn redo_call(task: &mut Task) {
    let Some(trace) = task.trace.as_mut() else { return };
    if task.resume.is_some() {
        // It goes on where it was interrupted.
        return;
    }
    let number = low32(trace.orig_rax);
    if number.cast_signed() < 0 {
        task.syscall = None;
        trace.finished = true;
        return;
    }
    let r = &task.regs;
    task.syscall = Some(Call { number: u64::from(number), args: [r.rdi, r.rsi, r.rdx, r.r10, r.r8, r.r9] });
    task.aux.enter = true;
}

/// A tracer that put an interrupted call's registers back wants it restarted: the instruction is run again.
pub(super) fn restart_changed(task: &mut Task) {
    let Some(trace) = task.trace.as_mut() else { return };
    let code = task.regs.rax.wrapping_neg();
    if task.syscall.is_some() || task.aux.interrupted.is_some() || trace.inject.is_some() {
        return;
    }
    if low32(trace.orig_rax).cast_signed() >= 0 && matches!(code, 512..=514 | 516) {
        // 516: restart_syscall(2)
        task.regs.rax = if code == 516 { 219 } else { trace.orig_rax };
        task.regs.rip = task.regs.rip.wrapping_sub(2);
        trace.orig_rax = u64::MAX;
        trace.finished = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ptrace::Trace;

    #[test]
    fn a_tracer_gives_no_privilege() {
        let mut task = Task::new(1, 1);
        task.trace = Some(Box::new(Trace::new(2, false, 0)));
        task.regs.rflags = 0x202;
        for (index, value) in
            [(17, 8), (20, 0x10), (21, TASK_SIZE), (22, u64::MAX), (16, 1 << 47), (23, 0x18)]
        {
            assert_eq!(set(&mut task, index, value), Err(Errno::EIO), "{index}");
        }
        set(&mut task, 18, u64::MAX).unwrap();
        assert_eq!(task.regs.rflags, 0x202 | USER_FLAGS);
        set(&mut task, 10, 7).unwrap();
        assert_eq!(le64(&get(&task), 80), 7);
        assert_eq!(le64(&get(&task), 120), u64::MAX);
    }
}

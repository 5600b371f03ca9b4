//! The way to user mode: exceptions become signals, signals become frames, interrupted calls restart or fail, and
//! restartable sequences are aborted.

use super::frame::{self, Extra, FRAME_LEN, SIGINFO, UCONTEXT};
use super::{AltStack, SS_AUTODISARM, SigAction, SigInfo, bit, ignored_by_default, stops_by_default};
use super::{SA_NODEFER, SA_ONSTACK, SA_RESETHAND, SA_RESTART, SA_RESTORER, SA_SIGINFO, SIG_IGN, SIGSEGV};
use crate::errno::Errno;
use crate::kernel::Kernel;
use crate::mm::Fault;
use crate::num::us;
use crate::platform::{TASK_SIZE, Vcpu};
use crate::task::{ExitStatus, TaskState, Tid};
use crate::wait::{Block, Cause, Outcome, Restart, Resume};

/// Direction, trap and resume flags: clear when a handler starts.
const HANDLER_CLEARS: u64 = 0x400 | 0x100 | 0x1_0000;

impl Kernel {
    /// The last thing before user mode: takes the task off when it is exiting, delivers pending signals (frames on its stack),
    /// restarts or ends an interrupted call, fixes up rseq. Returns whether the task goes to user mode on this vCPU now.
    pub fn return_to_user(&mut self, vcpu: &mut dyn Vcpu, tid: Tid) -> bool {
        let index = vcpu.index();
        if !self.finish_if_exiting(tid) || !self.runs_on(tid, index) {
            return false;
        }
        self.restore_mask_of_finished_call(tid);
        'again: loop {
            if self.trace_point(vcpu, tid) {
                return false;
            }
            if self.trace_due(tid) {
                continue;
            }
            if self.stops_here(tid) {
                return false;
            }
            while let Some(info) = self.dequeue_signal(tid) {
                if self.trace_signal(tid, &info) {
                    return false;
                }
                self.deliver(vcpu, tid, info);
                if !self.finish_if_exiting(tid) || !self.runs_on(tid, index) {
                    return false;
                }
                if self.trace_due(tid) {
                    continue 'again;
                }
                if self.stops_here(tid) {
                    return false;
                }
            }
            if let Some(block) = self.tasks.get_mut(&tid).and_then(|t| t.aux.interrupted.take()) {
                if matches!(block.restart, Restart::Never | Restart::Partial) {
                    self.fail_interrupted(tid, &block);
                } else {
                    // The handler goes on with its first deadline and memo.
                    let resume = Resume { cause: Cause::Woken, deadline: block.deadline, memo: block.memo };
                    if let Some(task) = self.tasks.get_mut(&tid) {
                        task.resume = Some(resume);
                        task.state = TaskState::Runnable;
                    }
                    if self.trace_restart(tid, block.restart) {
                        return false;
                    }
                    self.sched.push_front(tid, index);
                    return false;
                }
            }
            // No frame took the saved mask.
            if let Some(task) = self.tasks.get_mut(&tid)
                && let Some(mask) = task.saved_sigmask.take()
            {
                task.sigmask = mask;
            }
            self.rseq_fixup(tid, index);
            if !self.has_deliverable_signal(tid) {
                return true;
            }
        }
    }

    fn runs_on(&self, tid: Tid, vcpu: usize) -> bool {
        self.tasks.get(&tid).is_some_and(|t| t.state == TaskState::Running(vcpu))
    }

    /// Ends the task when its process is to die. Returns whether it lives on.
    pub(crate) fn finish_if_exiting(&mut self, tid: Tid) -> bool {
        let Some(task) = self.tasks.get(&tid) else { return false };
        if task.exiting {
            let status = self.process_of(tid).and_then(|p| p.group_exit).unwrap_or(ExitStatus::Signal(9));
            self.exit_task(tid, status);
            return false;
        }
        true
    }

    /// A call that ended on its own gives the mask back before signals are looked at; an interrupted one after.
    fn restore_mask_of_finished_call(&mut self, tid: Tid) {
        if let Some(task) = self.tasks.get_mut(&tid) {
            let interrupted = task.aux.interrupted.is_some() || task.regs.rax == Errno::EINTR.to_rax();
            if task.syscall.is_none()
                && !interrupted
                && let Some(mask) = task.saved_sigmask.take()
            {
                task.sigmask = mask;
            }
        }
    }

    /// Takes the next signal that the task does not block: its own before its process's.
    pub fn dequeue_signal(&mut self, tid: Tid) -> Option<SigInfo> {
        let allowed = !self.tasks.get(&tid)?.sigmask;
        self.take_signal(tid, allowed)
    }

    /// Takes a signal of a set, blocked or not.
    pub fn take_signal(&mut self, tid: Tid, allowed: u64) -> Option<SigInfo> {
        let own = self.tasks.get_mut(&tid)?.pending.take(allowed);
        let mut info = match own {
            Some(info) => info,
            None => self.process_of_mut(tid)?.pending.take(allowed)?,
        };
        self.timer_signal_taken(tid, &mut info);
        Some(info)
    }

    pub(crate) fn deliver(&mut self, vcpu: &mut dyn Vcpu, tid: Tid, info: SigInfo) {
        let Some(pid) = self.tasks.get(&tid).map(|t| t.pid) else { return };
        let action = self.action(pid, info.signo);
        match action.handler {
            SIG_IGN => {}
            0 if ignored_by_default(info.signo) => {}
            0 if stops_by_default(info.signo) => self.stop_process(pid, info.signo),
            0 => {
                let status = ExitStatus::Signal(crate::num::low8(u64::from(info.signo)));
                if !self.trace_exit(tid, status, true) {
                    self.exit_process(pid, status);
                }
            }
            _ => {
                self.end_interrupted_for_handler(tid, &action);
                if action.flags & SA_RESETHAND != 0 {
                    self.set_action(pid, info.signo, SigAction { handler: 0, ..action });
                }
                self.rseq_abort(tid);
                self.trace_own_flags(tid);
                if self.push_frame(vcpu, tid, &info, &action).is_err() {
                    if info.signo == SIGSEGV {
                        self.exit_process(pid, ExitStatus::Signal(11));
                    } else {
                        self.force_signal(tid, SigInfo::segv_general());
                    }
                } else {
                    self.trace_handler(tid);
                }
            }
        }
    }

    /// A handler is about to run: the interrupted call restarts after it or fails.
    fn end_interrupted_for_handler(&mut self, tid: Tid, action: &SigAction) {
        let Some(block) = self.tasks.get_mut(&tid).and_then(|t| t.aux.interrupted.take()) else { return };
        if block.restart == Restart::IfSaRestart && action.flags & SA_RESTART != 0 {
            if let Some(task) = self.tasks.get_mut(&tid)
                && let Some(call) = task.syscall.take()
            {
                task.regs.rax = call.number;
                // The syscall instruction is two bytes long.
                task.regs.rip = task.regs.rip.wrapping_sub(2);
            }
        } else {
            self.fail_interrupted(tid, &block);
        }
    }

    fn fail_interrupted(&mut self, tid: Tid, block: &Block) {
        let Some(call) = self.tasks.get_mut(&tid).and_then(|t| t.syscall.take()) else { return };
        crate::syscall::time::write_remaining_sleep(self, tid, &call, block);
        let [done, _] = block.memo;
        let result = match block.restart {
            Restart::Partial => Ok(Outcome::Return(done)),
            _ => Err(Errno::EINTR),
        };
        self.trace_call(tid, &call, &result);
        if let Some(task) = self.tasks.get_mut(&tid) {
            task.resume = None;
            task.regs.rax = if block.restart == Restart::Partial { done } else { Errno::EINTR.to_rax() };
        }
    }

    fn push_frame(
        &mut self,
        vcpu: &mut dyn Vcpu,
        tid: Tid,
        info: &SigInfo,
        action: &SigAction,
    ) -> Result<(), Errno> {
        if action.flags & SA_RESTORER == 0 {
            return Err(Errno::EFAULT);
        }
        let task = self.tasks.get(&tid).ok_or(Errno::ESRCH)?;
        let image = vcpu.save_xstate();
        let on_stack = action.flags & SA_ONSTACK != 0;
        let at = frame::place(task.regs.rsp, &task.altstack, on_stack, image.len()).ok_or(Errno::EFAULT)?;
        let extra = Extra {
            error: task.aux.trap_error,
            trapno: task.aux.trapno,
            cr2: task.aux.cr2,
            mask: task.saved_sigmask.unwrap_or(task.sigmask),
        };
        let shown = (action.flags & SA_SIGINFO != 0).then_some(info);
        let bytes = frame::build(&task.regs, &extra, &task.altstack, action.restorer, at.fpstate, shown);
        let fpstate = frame::build_fpstate(image, self.platform.xcr0());
        self.copy_out(tid, at.fpstate, &fpstate)?;
        self.copy_out(tid, at.frame, &bytes)?;
        let task = self.tasks.get_mut(&tid).ok_or(Errno::ESRCH)?;
        task.saved_sigmask = None;
        task.sigmask |= action.mask & !super::UNBLOCKABLE;
        if action.flags & SA_NODEFER == 0 {
            task.sigmask |= bit(info.signo);
        }
        if task.altstack.flags & SS_AUTODISARM != 0 {
            task.altstack = AltStack::default();
        }
        let r = &mut task.regs;
        r.rdi = u64::from(info.signo);
        r.rsi = at.frame.wrapping_add(SIGINFO);
        r.rdx = at.frame.wrapping_add(UCONTEXT);
        r.rax = 0;
        r.rsp = at.frame;
        r.rip = action.handler;
        r.rflags &= !HANDLER_CLEARS;
        vcpu.reset_xstate();
        Ok(())
    }

    /// rt_sigreturn(2): everything comes from user memory and is checked. A bad frame is SIGSEGV.
    pub fn sigreturn(&mut self, vcpu: &mut dyn Vcpu, tid: Tid) -> Outcome {
        if self.restore_frame(vcpu, tid).is_err() {
            self.force_signal(tid, SigInfo::segv_general());
        }
        Outcome::Done
    }

    fn restore_frame(&mut self, vcpu: &mut dyn Vcpu, tid: Tid) -> Result<(), Errno> {
        let old = self.tasks.get(&tid).ok_or(Errno::ESRCH)?.regs.clone();
        let bytes = self.copy_in_vec(tid, old.rsp.wrapping_sub(8), FRAME_LEN)?;
        let restored = frame::parse(&bytes, &old).ok_or(Errno::EFAULT)?;
        if restored.fpstate == 0 {
            vcpu.reset_xstate();
        } else {
            let image = self.read_fpstate(tid, restored.fpstate)?;
            vcpu.load_xstate(&image).map_err(|_| Errno::EFAULT)?;
        }
        self.set_sigmask(tid, restored.mask);
        let task = self.tasks.get_mut(&tid).ok_or(Errno::ESRCH)?;
        task.regs = restored.regs;
        let sp = task.regs.rsp;
        // As on Linux a stack that cannot be restored is no error.
        let _ = self.set_altstack(tid, restored.alt, sp);
        Ok(())
    }

    /// The extended state of a frame: the whole image where it is announced credibly, else the legacy region.
    fn read_fpstate(&mut self, tid: Tid, va: u64) -> Result<Vec<u8>, Errno> {
        let len = self.platform.xstate_len().max(576);
        let mut image = self.copy_in_vec(tid, va, 512)?;
        let whole = match frame::announced_xstate(&image, len) {
            Some(size) => {
                let end = va.checked_add(crate::num::u64_of(size)).ok_or(Errno::EFAULT)?;
                (self.get_u32(tid, end)? == frame::MAGIC2).then_some(size)
            }
            None => None,
        };
        let xcr0 = self.platform.xcr0();
        match whole {
            Some(size) => {
                let features = frame::le64(&image, frame::SW_RESERVED + 8) & xcr0;
                image = self.copy_in_vec(tid, va, size)?;
                let present = frame::le64(&image, 512) & features;
                frame::put(&mut image, 512, &present.to_le_bytes());
            }
            None => {
                image.resize(576, 0);
                frame::put(&mut image, 512, &3u64.to_le_bytes());
            }
        }
        image.resize(len, 0);
        Ok(image)
    }

    /// sigaltstack(2) with the stack pointer to judge by. EPERM while on the stack, EINVAL, ENOMEM.
    pub fn set_altstack(&mut self, tid: Tid, new: AltStack, sp: u64) -> Result<(), Errno> {
        let task = self.tasks.get_mut(&tid).ok_or(Errno::ESRCH)?;
        if task.altstack.contains(sp) {
            return Err(Errno::EPERM);
        }
        let mode = new.flags & !SS_AUTODISARM;
        if mode > super::SS_DISABLE {
            return Err(Errno::EINVAL);
        }
        task.altstack = if mode == super::SS_DISABLE {
            AltStack { sp: 0, size: 0, flags: new.flags }
        } else {
            // MINSIGSTKSZ.
            if new.size < 2048 {
                return Err(Errno::ENOMEM);
            }
            AltStack { flags: new.flags & SS_AUTODISARM, ..new }
        };
        Ok(())
    }

    /// Turns a processor exception into its resolution (a page fault) or its signal.
    pub fn exception(&mut self, tid: Tid, vector: u8, error: u64, cr2: u64) {
        let Some(task) = self.tasks.get_mut(&tid) else { return };
        let rip = task.regs.rip;
        if vector == 14 {
            self.counters.page_faults += 1;
            let fault = self.page_fault(tid, cr2, error);
            if fault == Fault::Resolved {
                return;
            }
            if let Some(task) = self.tasks.get_mut(&tid) {
                task.aux.trapno = 14;
                task.aux.trap_error = error;
                task.aux.cr2 = cr2;
            }
            let info = match fault {
                Fault::Segv(code) => SigInfo::fault(SIGSEGV, code, cr2),
                Fault::Bus(code) => SigInfo::fault(7, code, cr2),
                Fault::Resolved => return,
            };
            self.force_signal(tid, info);
            return;
        }
        task.aux.trapno = u64::from(vector);
        task.aux.trap_error = error;
        self.counters.exceptions += 1;
        let kernel = 0x80;
        let info = match vector {
            0 => SigInfo::fault(8, 1, rip),
            1 => SigInfo::fault(5, 2, rip),
            3 => SigInfo::fault(5, kernel, 0),
            // Hosts that run the guest without hardware support report `int n` as an undefined instruction; a processor says that
            // the gate is barred.
            6 if self.is_int_n(tid, rip) => {
                if let Some(task) = self.tasks.get_mut(&tid) {
                    task.aux.trapno = 13;
                }
                SigInfo::segv_general()
            }
            6 => SigInfo::fault(4, 2, rip),
            7 => SigInfo::fault(8, 0, rip),
            10..=12 => SigInfo::fault(7, kernel, 0),
            17 => SigInfo::fault(7, 1, 0),
            _ => SigInfo::segv_general(),
        };
        self.force_signal(tid, info);
    }

    /// Whether the instruction at `rip` is `int n` (but not `int 0x80`, which is undefined here: there are no 32-bit calls).
    fn is_int_n(&mut self, tid: Tid, rip: u64) -> bool {
        matches!(self.copy_in_vec(tid, rip, 2).as_deref(), Ok([0xcd, n]) if *n != 0x80)
    }

    /// A floating-point exception: the signal's code is the first unmasked flag in the order of Linux's fpu__exception_code.
    pub fn float_exception(&mut self, vcpu: &mut dyn crate::platform::Vcpu, tid: Tid, vector: u8) {
        let image = vcpu.save_xstate();
        let word =
            |at: usize| image.get(at..at + 2).and_then(|b| b.try_into().ok()).map_or(0, u16::from_le_bytes);
        // The legacy region of XSAVE: x87 control and status words at 0 and 2, MXCSR at 24 (flags in bits 0-5, masks in 7-12).
        let raised = if vector == 16 { word(2) & !word(0) } else { word(24) & !(word(24) >> 7) };
        let code = match raised & 0x3f {
            x if x & 1 != 0 => 7,    // FPE_FLTINV
            x if x & 4 != 0 => 3,    // FPE_FLTDIV
            x if x & 8 != 0 => 4,    // FPE_FLTOVF
            x if x & 0x12 != 0 => 5, // FPE_FLTUND: underflow, or a denormal operand
            x if x & 0x20 != 0 => 6, // FPE_FLTRES
            _ => 0,
        };
        let Some(task) = self.tasks.get_mut(&tid) else { return };
        task.aux.trapno = u64::from(vector);
        task.aux.trap_error = 0;
        let rip = task.regs.rip;
        self.counters.exceptions += 1;
        if code != 0 {
            self.force_signal(tid, SigInfo::fault(8, code, rip));
        }
    }

    /// Writes the vCPU's number where rseq(2) wants it, and aborts a critical section that was cut.
    fn rseq_fixup(&mut self, tid: Tid, vcpu: usize) {
        let Some(task) = self.tasks.get_mut(&tid) else { return };
        let event = std::mem::take(&mut task.aux.rseq_event);
        if task.rseq.addr == 0 || (!event && task.aux.rseq_cpu == Some(vcpu)) {
            return;
        }
        let moved = task.aux.rseq_cpu != Some(vcpu);
        task.aux.rseq_cpu = Some(vcpu);
        let (addr, len) = (task.rseq.addr, task.rseq.len);
        if event || moved {
            self.rseq_abort(tid);
        }
        if moved {
            let cpu = u32::try_from(vcpu).unwrap_or(0);
            let mut head = [0; 8];
            frame::put(&mut head, 0, &cpu.to_le_bytes());
            frame::put(&mut head, 4, &cpu.to_le_bytes());
            let mut tail = [0; 8];
            frame::put(&mut tail, 4, &cpu.to_le_bytes());
            let wrote = self.copy_out(tid, addr, &head).and_then(|()| {
                if len >= 28 { self.copy_out(tid, addr.wrapping_add(20), &tail) } else { Ok(()) }
            });
            if wrote.is_err() {
                self.rseq_broken(tid);
            }
        }
    }

    /// An rseq area that cannot be used is SIGSEGV; it is forgotten so that the signal is not repeated for ever.
    fn rseq_broken(&mut self, tid: Tid) {
        if let Some(task) = self.tasks.get_mut(&tid) {
            task.rseq = crate::task::Rseq::default();
        }
        self.force_signal(tid, SigInfo::segv_general());
    }

    /// If the task stands inside its critical section, sends it to the abort handler.
    fn rseq_abort(&mut self, tid: Tid) {
        let Some(task) = self.tasks.get(&tid) else { return };
        let (rseq, rip) = (task.rseq, task.regs.rip);
        if rseq.addr == 0 {
            return;
        }
        match self.rseq_target(tid, rseq, rip) {
            Ok(Some(target)) => {
                if let Some(task) = self.tasks.get_mut(&tid) {
                    task.regs.rip = target;
                }
            }
            Ok(None) => {}
            Err(_) => self.rseq_broken(tid),
        }
    }

    fn rseq_target(&mut self, tid: Tid, rseq: crate::task::Rseq, rip: u64) -> Result<Option<u64>, Errno> {
        let slot = rseq.addr.wrapping_add(8);
        let descriptor = self.get_u64(tid, slot)?;
        if descriptor == 0 {
            return Ok(None);
        }
        if descriptor >= TASK_SIZE {
            return Err(Errno::EINVAL);
        }
        // struct rseq_cs: version, flags, start_ip, post_commit_offset, abort_ip.
        let cs = self.copy_in_vec(tid, descriptor, 32)?;
        let (start, length, abort) = (frame::le64(&cs, 8), frame::le64(&cs, 16), frame::le64(&cs, 24));
        let valid = start < TASK_SIZE
            && abort < TASK_SIZE
            && start.checked_add(length).is_some_and(|end| end < TASK_SIZE)
            && abort.wrapping_sub(start) >= length
            && frame::le32(&cs, 0) == 0;
        let signature = self.get_u32(tid, abort.checked_sub(4).ok_or(Errno::EINVAL)?)?;
        if !valid || signature != rseq.signature {
            return Err(Errno::EINVAL);
        }
        self.put_u64(tid, slot, 0)?;
        Ok((rip.wrapping_sub(start) < length).then_some(abort))
    }
}

/// Size of an XSAVE image that fits a frame; for callers that show AT_MINSIGSTKSZ.
pub fn min_stack(xstate_len: usize) -> u64 {
    crate::num::u64_of(xstate_len.saturating_add(FRAME_LEN))
        .saturating_add(u64::from(4u32) + 64 + 16 + 8 + 128)
}

/// Index of a signal in a table of actions.
pub fn slot(signo: u32) -> usize {
    us(u64::from(signo.wrapping_sub(1)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::Limits;
    use crate::platform::fake::{FakePlatform, FakeVcpu};
    use crate::signal::queue::SIGRTMIN;
    use crate::task::{Call, Process, Task};
    use std::sync::Arc;

    fn kernel() -> Kernel {
        let mut k = Kernel::new(Arc::new(FakePlatform::new(1 << 30)), Limits::default()).unwrap();
        let mut p = Process::new(1, 0);
        p.threads.insert(1);
        k.processes.insert(1, p);
        k.tasks.insert(1, Task { state: TaskState::Running(0), ..Task::new(1, 1) });
        k.next_id = 2;
        k
    }

    fn interrupted(restart: Restart) -> Kernel {
        let mut k = kernel();
        let block = Block { on: Vec::new(), deadline: Some(77), relative: true, restart, memo: [5, 6] };
        let t = k.tasks.get_mut(&1).unwrap();
        t.syscall = Some(Call { number: 34, args: [0; 6] });
        t.regs.rip = 0x1002;
        t.aux.interrupted = Some(block);
        k
    }

    #[test]
    fn without_a_handler_a_call_goes_on_with_its_first_deadline() {
        let mut k = interrupted(Restart::WithDeadline);
        assert!(!k.return_to_user(&mut FakeVcpu::new(0), 1));
        let resume = k.tasks[&1].resume.unwrap();
        assert_eq!((resume.deadline, resume.memo), (Some(77), [5, 6]));
        assert_eq!(k.sched.pick(0, &k.tasks), Some(1));
    }

    #[test]
    fn a_call_that_never_restarts_fails_with_eintr() {
        let mut k = interrupted(Restart::Never);
        assert!(k.return_to_user(&mut FakeVcpu::new(0), 1));
        assert_eq!(k.tasks[&1].regs.rax, Errno::EINTR.to_rax());
        assert_eq!(k.tasks[&1].syscall, None);
    }

    #[test]
    fn sa_restart_decides_only_where_the_call_lets_it() {
        for (restart, flags, rip, rax) in [
            (Restart::IfSaRestart, SA_RESTART, 0x1000, 34),
            (Restart::IfSaRestart, 0, 0x1002, Errno::EINTR.to_rax()),
            (Restart::UnlessHandler, SA_RESTART, 0x1002, Errno::EINTR.to_rax()),
            (Restart::WithDeadline, SA_RESTART, 0x1002, Errno::EINTR.to_rax()),
        ] {
            let mut k = interrupted(restart);
            k.end_interrupted_for_handler(1, &SigAction { flags, ..SigAction::default() });
            assert_eq!((k.tasks[&1].regs.rip, k.tasks[&1].regs.rax), (rip, rax), "{restart:?}");
        }
    }

    #[test]
    fn a_stack_that_takes_no_frame_kills_without_a_loop() {
        let mut k = kernel();
        let action = SigAction { handler: 0x5000, flags: SA_RESTORER, restorer: 0x6000, mask: 0 };
        k.set_action(1, 10, action);
        k.set_action(1, SIGSEGV, action);
        k.signal_task(1, SigInfo::from_user(10, 0, 1, 0));
        assert!(!k.return_to_user(&mut FakeVcpu::new(0), 1));
        assert_eq!(k.exited, Some(ExitStatus::Signal(11)));
    }

    #[test]
    fn a_blocked_fault_kills_although_there_is_a_handler() {
        let mut k = kernel();
        k.set_action(1, SIGSEGV, SigAction { handler: 0x5000, ..SigAction::default() });
        k.tasks.get_mut(&1).unwrap().sigmask = bit(SIGSEGV);
        k.exception(1, 14, 4, 0xdead);
        assert!(!k.return_to_user(&mut FakeVcpu::new(0), 1));
        assert_eq!(k.exited, Some(ExitStatus::Signal(11)));
    }

    #[test]
    fn the_saved_mask_comes_back_when_no_handler_ran() {
        let mut k = kernel();
        let t = k.tasks.get_mut(&1).unwrap();
        (t.saved_sigmask, t.sigmask) = (Some(bit(10)), 0);
        assert!(k.return_to_user(&mut FakeVcpu::new(0), 1));
        assert_eq!(k.tasks[&1].sigmask, bit(10));
    }

    #[test]
    fn the_queue_of_real_time_signals_is_bounded() {
        let mut k = kernel();
        k.tasks.get_mut(&1).unwrap().sigmask = u64::MAX;
        k.processes.get_mut(&1).unwrap().rlimits.insert(11, (3, 3));
        let info = SigInfo::from_user(SIGRTMIN, -1, 1, 0);
        let sent = (0..9).filter(|_| k.try_signal_task(1, info).is_ok()).count();
        assert_eq!(sent, 3);
    }
}

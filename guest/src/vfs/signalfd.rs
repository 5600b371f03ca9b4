//! Signals as a file (signalfd(2)): a read takes pending signals of the reader. Readiness is that of the process that made the
//! descriptor, because a waiter in an epoll set has no reader yet.

use super::{FileKind, OpenFile};
use crate::errno::Errno;
use crate::kernel::Kernel;
use crate::signal::{SigInfo, bit, frame};
use crate::task::Tid;
use crate::vfs::file::{O_NONBLOCK, iovec_total};
use crate::wait::{Block, Outcome, SysResult, WaitKey};
use serde::{Deserialize, Serialize};

/// `sizeof(struct signalfd_siginfo)`.
const RECORD: usize = 128;

/// One set of signals.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SignalFd {
    /// Its object number for waiters.
    pub object: u64,
    /// Signals that it takes, bit n-1 for signal n.
    pub mask: u64,
    /// The process that made it.
    pub pid: u32,
}

/// `struct signalfd_siginfo`: the parts of the siginfo that its code gives a meaning, at their places.
fn record(info: &SigInfo) -> [u8; RECORD] {
    let mut b = [0; RECORD];
    let [first, second, third, _] = info.fields;
    let (low, high) = (first & 0xffff_ffff, first >> 32);
    let put32 = |b: &mut [u8], at: usize, x: u64| frame::put(b, at, &crate::num::low32(x).to_le_bytes());
    frame::put(&mut b, 0, &info.signo.to_le_bytes());
    frame::put(&mut b, 4, &info.errno.to_le_bytes());
    frame::put(&mut b, 8, &info.code.to_le_bytes());
    match (info.signo, info.code) {
        (_, -2) => {
            // SI_TIMER: timer id, overruns, value.
            put32(&mut b, 24, low);
            put32(&mut b, 32, high);
            put32(&mut b, 44, second);
            frame::put(&mut b, 48, &second.to_le_bytes());
        }
        (17, 1..) => {
            // SIGCHLD: pid, uid, status, user and system time.
            put32(&mut b, 12, low);
            put32(&mut b, 16, high);
            put32(&mut b, 40, second);
            frame::put(&mut b, 56, &third.to_le_bytes());
        }
        (4 | 5 | 7 | 8 | 11, 1..) => frame::put(&mut b, 72, &first.to_le_bytes()),
        _ => {
            put32(&mut b, 12, low);
            put32(&mut b, 16, high);
            put32(&mut b, 44, second);
            frame::put(&mut b, 48, &second.to_le_bytes());
        }
    }
    b
}

impl Kernel {
    /// Makes a descriptor for signals with one reference. `flags` are O_NONBLOCK or 0.
    pub fn signalfd_open(&mut self, tid: Tid, mask: u64, flags: u32) -> u64 {
        let object = self.new_object();
        let pid = self.task(tid).map_or(0, |t| t.pid);
        let id = self.objects.signalfds.insert(SignalFd { object, mask, pid });
        self.files.insert(OpenFile { kind: FileKind::SignalFd(id), flags: flags | 2, pos: 0, refs: 1 })
    }

    /// A signal was queued for a process or one of its threads.
    pub fn signalfd_notify(&mut self, pid: u32, signo: u32) {
        if self.objects.signalfds.is_empty() {
            return;
        }
        let mine = |s: &SignalFd| s.pid == pid && s.mask & bit(signo) != 0;
        let objects: Vec<u64> =
            self.objects.signalfds.iter().filter(|(_, s)| mine(s)).map(|(_, s)| s.object).collect();
        for object in objects {
            self.wake(WaitKey::Object(object));
        }
    }

    /// POLL* events.
    pub fn signalfd_poll(&self, id: u64) -> u32 {
        let Some(s) = self.objects.signalfds.get(id) else { return crate::poll::POLLERR };
        let Some(process) = self.processes.get(&s.pid) else { return 0 };
        let threads = process.threads.iter().filter_map(|t| self.tasks.get(t));
        let pending = threads.fold(process.pending.mask(), |m, t| m | t.pending.mask());
        if pending & s.mask != 0 { crate::poll::POLLIN } else { 0 }
    }

    /// read(2): as many pending signals as there is room for. EINVAL, EAGAIN.
    pub fn signalfd_read(&mut self, tid: Tid, f: &OpenFile, id: u64, iovecs: &[(u64, u64)]) -> SysResult {
        let room = iovec_total(iovecs);
        let records = crate::num::us(room / crate::num::u64_of(RECORD)).min(64);
        if records == 0 {
            return Err(Errno::EINVAL);
        }
        let s = self.objects.signalfds.get(id).ok_or(Errno::EBADF)?;
        let (object, mask) = (s.object, s.mask);
        let mut bytes = Vec::new();
        for _ in 0..records {
            let Some(info) = self.take_signal(tid, mask) else { break };
            bytes.extend(record(&info));
        }
        if bytes.is_empty() {
            if f.flags & O_NONBLOCK != 0 {
                return Err(Errno::EAGAIN);
            }
            let mut block = Block::on(WaitKey::Object(object));
            // Signals of this very task wake it whoever made the descriptor.
            block.on.push(WaitKey::Signal(tid));
            return Ok(Outcome::Block(block));
        }
        let moved = self.scatter(tid, iovecs, &bytes);
        let whole = moved / RECORD * RECORD;
        if whole == 0 { Err(Errno::EFAULT) } else { Ok(Outcome::Return(crate::num::u64_of(whole))) }
    }
}

//! Readiness: poll masks, waiters on objects, epoll sets, and host descriptors that tasks sleep on.

use crate::kernel::Kernel;
use crate::store::Store;
use crate::vfs::FileKind;
use crate::wait::WaitKey;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::AsRawFd;

pub mod epoll;

use epoll::EpollSet;

/// poll(2).
pub const POLLIN: u32 = 1;
/// poll(2).
pub const POLLPRI: u32 = 2;
/// poll(2).
pub const POLLOUT: u32 = 4;
/// poll(2).
pub const POLLERR: u32 = 8;
/// poll(2).
pub const POLLHUP: u32 = 16;
/// poll(2).
pub const POLLNVAL: u32 = 32;
/// poll(2).
pub const POLLRDNORM: u32 = 64;
/// poll(2).
pub const POLLWRNORM: u32 = 256;
/// poll(2).
pub const POLLWRBAND: u32 = 512;
/// poll(2).
pub const POLLRDHUP: u32 = 0x2000;
/// Events that mean input.
pub(crate) const INPUT: u32 = 1 | 2 | 64 | 128 | 0x2000;
/// Events that mean output.
pub(crate) const OUTPUT: u32 = 4 | 256 | 512;

/// Epoll sets and which objects they watch.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Polls {
    /// Sets by id.
    pub sets: Store<EpollSet>,
    /// Watching entries by object: (set, descriptor, file).
    pub by_object: BTreeMap<u64, BTreeSet<(u64, i32, u64)>>,
    /// Watching entries by file: (set, descriptor).
    by_file: BTreeMap<u64, BTreeSet<(u64, i32)>>,
}

impl Kernel {
    /// An object's readiness changed: edge-triggered entries are armed, and epoll sets that hold it are woken.
    pub fn object_changed(&mut self, object: u64) {
        self.object_changed_for(object, u32::MAX);
    }

    /// Wakes who sleeps on an object because these events may have come: taking bytes makes room and is no edge of input, putting
    /// some in is none of output.
    pub(crate) fn wake_for(&mut self, object: u64, events: u32) {
        self.object_changed_for(object, events);
        if let Some(tids) = self.waiters.get(&WaitKey::Object(object)) {
            for tid in tids.clone() {
                self.unblock(tid, crate::wait::Cause::Woken);
            }
        }
    }

    fn object_changed_for(&mut self, object: u64, events: u32) {
        let mut todo = vec![object];
        let mut seen = BTreeSet::new();
        while let Some(object) = todo.pop() {
            let Some(watchers) = self.polls.by_object.get(&object) else { continue };
            for (set, fd, file) in watchers {
                let Some(set) = self.polls.sets.get_mut(*set) else { continue };
                set.arm(*fd, *file, events);
                if seen.insert(set.object) {
                    todo.push(set.object);
                }
            }
        }
        for object in &seen {
            if let Some(tids) = self.waiters.get(&WaitKey::Object(*object)) {
                for tid in tids.clone() {
                    self.unblock(tid, crate::wait::Cause::Woken);
                }
            }
        }
        for object in seen.into_iter().chain([object]) {
            self.aio_changed(object);
        }
    }

    /// Edge-triggered entries of an object report its next readiness, although nobody is woken now: a read or write met the end
    /// of what a host stream had.
    pub(crate) fn object_drained(&mut self, object: u64) {
        let Some(watchers) = self.polls.by_object.get(&object) else { return };
        for (set, fd, file) in watchers {
            if let Some(set) = self.polls.sets.get_mut(*set) {
                set.arm(*fd, *file, u32::MAX);
            }
        }
    }

    /// Host descriptors that sleeping tasks wait for: (descriptor, wants input, wants output).
    pub fn host_polls(&self) -> Vec<(i32, bool, bool)> {
        let mut waited: BTreeSet<u64> = BTreeSet::new();
        let mut todo: Vec<u64> = self
            .waiters
            .keys()
            .filter_map(|k| if let WaitKey::Object(o) = k { Some(*o) } else { None })
            .chain(self.aio.objects())
            .collect();
        let sets: BTreeMap<u64, &EpollSet> = self.polls.sets.iter().map(|(_, s)| (s.object, s)).collect();
        while let Some(object) = todo.pop() {
            if waited.insert(object)
                && let Some(set) = sets.get(&object)
            {
                todo.extend(set.watched());
            }
        }
        let mut all = self.console_polls();
        for (_, s) in self.objects.streams.iter() {
            let (input, output) = (waited.contains(&s.object_in), waited.contains(&s.object_out));
            if let (Some(fd), true) = (&s.fd, input || output) {
                all.push((fd.as_raw_fd(), input, output));
            }
        }
        all
    }

    /// Objects that stand for a host descriptor.
    pub fn host_objects(&self, fd: i32) -> Vec<u64> {
        let ours =
            self.objects.streams.iter().filter(|(_, s)| s.fd.as_ref().is_some_and(|f| f.as_raw_fd() == fd));
        ours.flat_map(|(_, s)| [s.object_in, s.object_out]).collect()
    }

    /// POLL* events that a file has now.
    pub fn file_poll(&mut self, file: u64) -> u32 {
        self.poll_cached(file, &mut BTreeMap::new())
    }

    /// As [`Kernel::file_poll`]; `cache` holds nested epoll sets that were looked at, so that each is visited once.
    pub(crate) fn poll_cached(&self, file: u64, cache: &mut BTreeMap<u64, bool>) -> u32 {
        let Some(f) = self.files.get(file) else { return POLLNVAL };
        match &f.kind {
            FileKind::Inode(_) | FileKind::Device(..) => POLLIN | POLLOUT | POLLRDNORM | POLLWRNORM,
            FileKind::Pipe { pipe, .. } => {
                let (reads, writes) = (f.flags & 3 != 1, f.flags & 3 != 0);
                self.objects.pipes.get(*pipe).map_or(POLLERR, |p| p.poll(reads, writes, f.pos))
            }
            FileKind::EventFd(id) => self.objects.eventfds.get(*id).map_or(POLLERR, |e| e.poll()),
            FileKind::Epoll(id) => {
                if self.epoll_ready(*id, cache) {
                    POLLIN | POLLRDNORM
                } else {
                    0
                }
            }
            FileKind::HostStream(id) => self.objects.streams.get(*id).map_or(POLLERR, |s| s.poll()),
            FileKind::TimerFd(id) => {
                self.objects.timerfds.get(*id).map_or(POLLERR, |t| if t.ticks > 0 { POLLIN } else { 0 })
            }
            FileKind::SignalFd(id) => self.signalfd_poll(*id),
            FileKind::Inotify(id) => self.objects.watches.queues.get(*id).map_or(POLLERR, |q| q.poll()),
            FileKind::Fanotify(id) => {
                self.objects.watches.fanotify.groups.get(*id).map_or(POLLERR, |q| q.poll())
            }
            FileKind::Userfault(id) => self.userfault_poll(*id, f.flags),
            FileKind::Tty(end) => self.tty_poll(end),
            FileKind::PidFd(id) => self.pidfd_poll(*id),
            FileKind::Mqueue(id) => self.ipc.mqueues.get(*id).map_or(POLLERR, |q| q.poll()),
            FileKind::Socket(id) => self.socket_poll(*id),
            FileKind::Work => {
                let input = if self.work.inbox.is_empty() { 0 } else { POLLIN | POLLRDNORM };
                input | if self.work.outbox.is_empty() { POLLOUT | POLLWRNORM } else { 0 }
            }
        }
    }

    /// Objects whose change may bring one of `events` to a file; none for what is always ready.
    pub fn file_objects(&self, file: u64, events: u32) -> Vec<u64> {
        match self.files.get(file).map(|f| &f.kind) {
            Some(FileKind::Pipe { pipe, .. }) => {
                self.objects.pipes.get(*pipe).map(|p| p.object).into_iter().collect()
            }
            Some(FileKind::EventFd(id)) => {
                self.objects.eventfds.get(*id).map(|e| e.object).into_iter().collect()
            }
            Some(FileKind::Epoll(id)) => self.polls.sets.get(*id).map(|e| e.object).into_iter().collect(),
            Some(FileKind::HostStream(id)) => {
                let Some(s) = self.objects.streams.get(*id) else { return Vec::new() };
                let input = (events & INPUT != 0).then_some(s.object_in);
                input.into_iter().chain((events & OUTPUT != 0).then_some(s.object_out)).collect()
            }
            Some(FileKind::TimerFd(id)) => {
                self.objects.timerfds.get(*id).map(|t| t.object).into_iter().collect()
            }
            Some(FileKind::Fanotify(id)) => {
                self.objects.watches.fanotify.groups.get(*id).map(|q| q.object).into_iter().collect()
            }
            Some(FileKind::Userfault(id)) => {
                self.objects.userfaults.all.get(*id).map(|u| u.object).into_iter().collect()
            }
            Some(FileKind::Inotify(id)) => {
                self.objects.watches.queues.get(*id).map(|q| q.object).into_iter().collect()
            }
            Some(FileKind::SignalFd(id)) => {
                self.objects.signalfds.get(*id).map(|s| s.object).into_iter().collect()
            }
            Some(FileKind::Tty(end)) => self.tty_object(end).into_iter().collect(),
            Some(FileKind::PidFd(id)) => self.objects.pidfds.get(*id).map(|p| p.object).into_iter().collect(),
            Some(FileKind::Mqueue(id)) => self.ipc.mqueues.get(*id).map(|q| q.object).into_iter().collect(),
            Some(FileKind::Socket(id)) => {
                self.objects.net.sockets.get(*id).map(|s| s.object).into_iter().collect()
            }
            Some(FileKind::Work) => vec![self.work.object],
            _ => Vec::new(),
        }
    }

    /// What to sleep on for any change of a file's readiness.
    pub fn file_wait_keys(&self, file: u64) -> Vec<WaitKey> {
        self.file_objects(file, INPUT | OUTPUT).into_iter().map(WaitKey::Object).collect()
    }
}

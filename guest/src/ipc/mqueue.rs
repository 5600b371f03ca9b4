//! POSIX message queues (mq_overview(7)): queues by name, open ones as descriptors.

use crate::errno::Errno;
use crate::kernel::Kernel;
use crate::num::u64_of;
use crate::poll::{POLLIN, POLLOUT};
use crate::signal::SigInfo;
use crate::store::Store;
use crate::task::Tid;
use crate::vfs::{FileKind, OpenFile};
use crate::wait::WaitKey;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};

/// Priorities are below this (MQ_PRIO_MAX).
pub const PRIO_MAX: u32 = 32_768;
/// Messages of a queue at most for those without privileges (fs.mqueue.msg_max), and for root.
const MSG_MAX: (i64, i64) = (10, 65_536);
/// Bytes of a message likewise (fs.mqueue.msgsize_max).
const MSGSIZE_MAX: (i64, i64) = (8192, 16 << 20);
/// Queues at most (fs.mqueue.queues_max).
const QUEUES_MAX: usize = 256;
/// RLIMIT_MSGQUEUE's number and what it is when nothing was set.
const RLIMIT_MSGQUEUE: u32 = 12;
const DEFAULT_BYTES: u64 = 819_200;
/// Bytes charged for all queues of the sandbox at most: users are cheap for a guest that is root.
const ALL: u64 = 64 << 20;
/// What Linux charges for each message besides its bytes: a pointer and a tree node.
const PER_MESSAGE: u64 = 8 + 48;

/// Whom mq_notify(3) told to tell.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notify {
    /// The process.
    pub pid: u32,
    /// Signal number; 0: none is sent.
    pub signo: u32,
    /// sigev_value.
    pub value: u64,
    /// SIGEV_ number.
    pub kind: u32,
    /// SIGEV_THREAD: a netlink socket of the C library, and what it is sent; the last byte says why.
    pub cookie: Option<(u64, Vec<u8>)>,
}

/// Bytes of a cookie (NOTIFY_COOKIE_LEN).
pub const COOKIE: usize = 32;
/// Why a cookie comes: a message has, or nobody is told any more.
const WOKEN_UP: u8 = 1;
const REMOVED: u8 = 2;

/// One queue.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Mqueue {
    /// Its name without the slash; empty once it is unlinked.
    pub name: Vec<u8>,
    /// Owner, group, permissions.
    pub owner: (u32, u32, u32),
    /// mq_maxmsg.
    pub most: i64,
    /// mq_msgsize.
    pub size: i64,
    /// Messages by priority, highest last; first come, first served within one.
    pub messages: BTreeMap<u32, VecDeque<Vec<u8>>>,
    /// How many messages.
    pub count: i64,
    /// Open descriptions.
    pub opens: u32,
    /// Who is told of the next message.
    pub notify: Option<Notify>,
    /// Its object number for waiters.
    pub object: u64,
    /// Bytes charged to its owner.
    pub charge: u64,
    /// Receivers that sleep; stale entries are dropped when looked at.
    pub receivers: std::collections::BTreeSet<Tid>,
}

impl Mqueue {
    /// POLL* events.
    pub fn poll(&self) -> u32 {
        let input = if self.count > 0 { POLLIN } else { 0 };
        let output = if self.count < self.most { POLLOUT } else { 0 };
        input | output
    }

    fn allows(&self, who: &crate::task::Creds, access: u32) -> bool {
        let (uid, gid, mode) = self.owner;
        let granted = if who.fsuid == uid {
            mode >> 6
        } else if who.fsgid == gid || who.groups.contains(&gid) {
            mode >> 3
        } else {
            mode
        };
        // O_RDONLY, O_WRONLY, O_RDWR.
        let wanted = match access {
            0 => 4,
            1 => 2,
            _ => 6,
        };
        wanted & !granted == 0
            || who.can(crate::task::creds::cap::DAC_OVERRIDE)
            || (wanted == 4 && who.can(crate::task::creds::cap::DAC_READ_SEARCH))
    }

    /// Bytes in it.
    pub fn bytes(&self) -> u64 {
        self.messages.values().flatten().map(|m| u64_of(m.len())).sum()
    }
}

/// All queues.
pub type Mqueues = Store<Mqueue>;

/// mq_open(3)'s attributes.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)]
pub struct Attr {
    pub most: i64,
    pub size: i64,
}

impl Kernel {
    fn mqueue_named(&self, name: &[u8]) -> Option<u64> {
        self.ipc.mqueues.iter().find(|(_, q)| q.name == name && !name.is_empty()).map(|(id, _)| id)
    }

    /// mq_open(2): returns an open file. `mode` has the umask applied.
    pub fn mqueue_open(
        &mut self,
        tid: Tid,
        name: &[u8],
        flags: u32,
        mode: u32,
        attr: Option<Attr>,
    ) -> Result<u64, Errno> {
        use linux_raw_sys::general as g;
        if name.is_empty() {
            return Err(Errno::ENOENT);
        }
        if name.contains(&b'/') || name == b"." || name == b".." {
            return Err(Errno::EACCES);
        }
        if name.len() > 255 {
            return Err(Errno::ENAMETOOLONG);
        }
        let who = self.creds_of(tid);
        let id = match self.mqueue_named(name) {
            Some(_) if flags & g::O_CREAT != 0 && flags & g::O_EXCL != 0 => return Err(Errno::EEXIST),
            Some(id) => {
                if flags & 3 == 3 {
                    return Err(Errno::EINVAL);
                }
                let queue = self.ipc.mqueues.get(id).ok_or(Errno::ENOENT)?;
                if !queue.allows(&who, flags & 3) {
                    return Err(Errno::EACCES);
                }
                id
            }
            None if flags & g::O_CREAT == 0 => return Err(Errno::ENOENT),
            None => self.mqueue_make(tid, name, mode, attr)?,
        };
        if let Some(queue) = self.ipc.mqueues.get_mut(id) {
            queue.opens += 1;
        }
        let flags = flags & (3 | g::O_NONBLOCK);
        Ok(self.files.insert(OpenFile { kind: FileKind::Mqueue(id), flags, pos: 0, refs: 1 }))
    }

    fn mqueue_make(&mut self, tid: Tid, name: &[u8], mode: u32, attr: Option<Attr>) -> Result<u64, Errno> {
        let who = self.creds_of(tid);
        let root = who.can(crate::task::creds::cap::SYS_RESOURCE);
        let attr = match attr {
            None => Attr { most: MSG_MAX.0, size: MSGSIZE_MAX.0 },
            Some(a) => {
                let pick = |(user, all): (i64, i64)| if root { all } else { user };
                if a.most <= 0 || a.size <= 0 || a.most > pick(MSG_MAX) || a.size > pick(MSGSIZE_MAX) {
                    return Err(Errno::EINVAL);
                }
                a
            }
        };
        if self.ipc.mqueues.len() >= QUEUES_MAX && !root || self.ipc.mqueues.len() >= 4 * QUEUES_MAX {
            return Err(Errno::ENOSPC);
        }
        let (most, size) = (attr.most.unsigned_abs(), attr.size.unsigned_abs());
        let charge = most.saturating_mul(size.saturating_add(PER_MESSAGE));
        let limit =
            self.process_of(tid).and_then(|p| p.rlimits.get(&RLIMIT_MSGQUEUE)).map_or(DEFAULT_BYTES, |l| l.0);
        let used: u64 =
            self.ipc.mqueues.iter().filter(|(_, q)| q.owner.0 == who.fsuid).map(|(_, q)| q.charge).sum();
        // Whatever the limits of users say, queues are the host's memory.
        let all: u64 = self.ipc.mqueues.iter().map(|(_, q)| q.charge).sum();
        if used.saturating_add(charge) > limit || all.saturating_add(charge) > ALL {
            return Err(Errno::EMFILE);
        }
        let object = self.new_object();
        Ok(self.ipc.mqueues.insert(Mqueue {
            name: name.to_vec(),
            owner: (who.fsuid, who.fsgid, mode & 0o777),
            most: attr.most,
            size: attr.size,
            messages: BTreeMap::new(),
            count: 0,
            opens: 0,
            notify: None,
            object,
            charge,
            receivers: std::collections::BTreeSet::new(),
        }))
    }

    /// mq_unlink(2). ENOENT, EACCES.
    pub fn mqueue_unlink(&mut self, tid: Tid, name: &[u8]) -> Result<(), Errno> {
        let who = self.creds_of(tid);
        let id = self.mqueue_named(name).ok_or(Errno::ENOENT)?;
        let queue = self.ipc.mqueues.get_mut(id).ok_or(Errno::ENOENT)?;
        // The directory of queues is sticky.
        if !who.owns(queue.owner.0) {
            return Err(Errno::EPERM);
        }
        queue.name.clear();
        self.mqueue_reap(id);
        Ok(())
    }

    /// An open description goes.
    pub(crate) fn mqueue_close(&mut self, id: u64) {
        if let Some(queue) = self.ipc.mqueues.get_mut(id) {
            queue.opens = queue.opens.saturating_sub(1);
        }
        self.mqueue_reap(id);
    }

    fn mqueue_reap(&mut self, id: u64) {
        if self.ipc.mqueues.get(id).is_some_and(|q| q.opens == 0 && q.name.is_empty()) {
            self.ipc.mqueues.remove(id);
        }
    }

    /// A process closes a descriptor of the queue, or ends: its registration goes.
    pub(crate) fn mqueue_forget(&mut self, pid: u32, id: Option<u64>) {
        let mut gone = Vec::new();
        for (this, queue) in self.ipc.mqueues.iter_mut() {
            if id.is_none_or(|id| id == this) && queue.notify.as_ref().is_some_and(|n| n.pid == pid) {
                gone.extend(queue.notify.take());
            }
        }
        for notify in gone {
            self.mqueue_cookie(notify, REMOVED);
        }
    }

    fn mqueue_cookie(&mut self, notify: Notify, why: u8) {
        if let Some((socket, mut cookie)) = notify.cookie {
            if let Some(last) = cookie.last_mut() {
                *last = why;
            }
            self.netlink_deliver(socket, cookie);
        }
    }

    /// Sends; `None` when the queue is full. EMSGSIZE.
    pub fn mqueue_send(&mut self, tid: Tid, id: u64, text: Vec<u8>, prio: u32) -> Result<Option<()>, Errno> {
        let receivers = self.mqueue_receivers(id);
        let (uid, pid) = (self.creds_of(tid).uid, self.task(tid).map_or(0, |t| t.pid));
        let queue = self.ipc.mqueues.get_mut(id).ok_or(Errno::EBADF)?;
        if i64::try_from(text.len()).is_ok_and(|n| n > queue.size) {
            return Err(Errno::EMSGSIZE);
        }
        if queue.count >= queue.most {
            return Ok(None);
        }
        let was_empty = queue.count == 0;
        queue.messages.entry(prio).or_default().push_back(text);
        queue.count += 1;
        let object = queue.object;
        // Told once, and only when nobody takes the message already.
        let told = if was_empty && receivers == 0 { queue.notify.take() } else { None };
        if let Some(n) = told {
            if n.signo != 0 {
                let fields = [u64::from(pid) | u64::from(uid) << 32, n.value, 0, 0];
                self.signal_process(n.pid, SigInfo { signo: n.signo, errno: 0, code: -3, fields });
            }
            self.mqueue_cookie(n, WOKEN_UP);
        }
        self.wake(WaitKey::Object(object));
        Ok(Some(()))
    }

    fn mqueue_receivers(&mut self, id: u64) -> usize {
        let Some(queue) = self.ipc.mqueues.get(id) else { return 0 };
        let key = WaitKey::Object(queue.object);
        let asleep = |t: &Tid| {
            self.task(*t).is_some_and(
                |t| matches!(&t.state, crate::task::TaskState::Blocked(b) if b.on.contains(&key)),
            )
        };
        let awake: Vec<Tid> = queue.receivers.iter().copied().filter(|t| !asleep(t)).collect();
        let Some(queue) = self.ipc.mqueues.get_mut(id) else { return 0 };
        for tid in awake {
            queue.receivers.remove(&tid);
        }
        queue.receivers.len()
    }

    /// Takes the oldest message of the highest priority; `None` when there is none, and then the task counts as a receiver until it is
    /// awake. EMSGSIZE when `room` is less than the queue's message size.
    pub fn mqueue_receive(&mut self, tid: Tid, id: u64, room: u64) -> Result<Option<(Vec<u8>, u32)>, Errno> {
        let queue = self.ipc.mqueues.get_mut(id).ok_or(Errno::EBADF)?;
        queue.receivers.remove(&tid);
        if room < queue.size.unsigned_abs() {
            return Err(Errno::EMSGSIZE);
        }
        let Some(mut entry) = queue.messages.last_entry() else {
            queue.receivers.insert(tid);
            return Ok(None);
        };
        let prio = *entry.key();
        let text = entry.get_mut().pop_front().unwrap_or_default();
        if entry.get().is_empty() {
            entry.remove();
        }
        queue.count -= 1;
        let object = queue.object;
        self.wake(WaitKey::Object(object));
        Ok(Some((text, prio)))
    }

    /// What read(2) of a queue's descriptor says.
    pub(crate) fn mqueue_text(&self, id: u64) -> String {
        let Some(q) = self.ipc.mqueues.get(id) else { return String::new() };
        let n = q.notify.clone().unwrap_or_default();
        format!("QSIZE:{:<10} NOTIFY:{:<5} SIGNO:{:<5} NOTIFY_PID:{:<6}\n", q.bytes(), n.kind, n.signo, n.pid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::Limits;
    use crate::platform::fake::FakePlatform;

    #[test]
    fn queues_of_many_users_share_one_limit() {
        let platform = std::sync::Arc::new(FakePlatform::new(64 << 20));
        let mut k = Kernel::new(platform, Limits::default()).unwrap();
        let attr = Attr { most: 50, size: 8192 };
        let open = |k: &mut Kernel, n: u32| {
            let flags = linux_raw_sys::general::O_CREAT | 2;
            k.mqueue_open(0, format!("q{n}").as_bytes(), flags, 0o600, Some(attr))
        };
        let made = (0..1000)
            .take_while(|n| {
                let file = open(&mut k, *n);
                // Each belongs to another user, whose own limit it is far below.
                for (id, queue) in k.ipc.mqueues.iter_mut() {
                    queue.owner.0 = 1 + u32::try_from(id).unwrap();
                }
                file.is_ok()
            })
            .count();
        assert_eq!(made, 162);
        assert_eq!(open(&mut k, 2000), Err(Errno::EMFILE));
    }
}

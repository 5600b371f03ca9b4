//! System V message queues (msgget(2), msgop(2)).

use super::{Object, Perm};
use crate::errno::Errno;
use crate::kernel::Kernel;
use crate::num::u64_of;
use crate::task::Tid;
use crate::wait::WaitKey;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

/// Bytes of a message at most (kernel.msgmax).
pub const MSGMAX: u64 = 8192;
/// Bytes of a queue at most, unless raised (kernel.msgmnb).
pub const MSGMNB: u64 = 16_384;
/// Queues at most (kernel.msgmni).
pub const MSGMNI: usize = 32_000;
/// Bytes of all messages, each counted with this much more: what a guest may make the host remember.
const ALL: u64 = 32 << 20;
const OVERHEAD: u64 = 64;
/// MSG_NOERROR: cut a message that is too long.
pub const MSG_NOERROR: u32 = 0o10000;
/// MSG_EXCEPT: any type but this.
pub const MSG_EXCEPT: u32 = 0o20000;
/// MSG_COPY: the type is an index, and the message stays.
pub const MSG_COPY: u32 = 0o40000;

/// One message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Its type, 1 or more.
    pub kind: i64,
    /// Its text.
    pub text: Vec<u8>,
}

/// One queue.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[allow(missing_docs)] // msgctl(2)
pub struct Queue {
    pub perm: Perm,
    pub messages: VecDeque<Message>,
    pub stime: i64,
    pub rtime: i64,
    pub ctime: i64,
    pub bytes: u64,
    pub most: u64,
    pub lspid: u32,
    pub lrpid: u32,
    /// Its object number for waiters.
    pub object: u64,
}

impl Object for Queue {
    fn perm(&self) -> &Perm {
        &self.perm
    }
    fn perm_mut(&mut self) -> &mut Perm {
        &mut self.perm
    }
}

impl Queue {
    /// Where the message is that a receiver of `kind` with these flags gets.
    fn find(&self, kind: i64, flags: u32) -> Option<usize> {
        if flags & MSG_COPY != 0 {
            return usize::try_from(kind).ok().filter(|n| *n < self.messages.len());
        }
        match kind {
            0 => (!self.messages.is_empty()).then_some(0),
            k if k < 0 => {
                let most = k.checked_neg().unwrap_or(i64::MAX);
                let fit = self.messages.iter().enumerate().filter(|(_, m)| m.kind <= most);
                fit.min_by_key(|(i, m)| (m.kind, *i)).map(|(i, _)| i)
            }
            k => self.messages.iter().position(|m| (m.kind == k) != (flags & MSG_EXCEPT != 0)),
        }
    }
}

impl Kernel {
    /// msgget(2).
    pub fn msg_get(&mut self, tid: Tid, key: i32, flags: u32) -> Result<u32, Errno> {
        let who = self.creds_of(tid);
        if let Some(index) = self.ipc.msg.lookup(key, flags)? {
            let id = self.ipc.msg.id_at(index).ok_or(Errno::EINVAL)?;
            self.ipc.msg.get(id.cast_signed())?.perm.check(&who, flags)?;
            return Ok(id);
        }
        let (ctime, _) = self.now_pair();
        let queue = Queue {
            perm: Perm::new(key, flags, &who),
            messages: VecDeque::new(),
            stime: 0,
            rtime: 0,
            ctime,
            bytes: 0,
            most: MSGMNB,
            lspid: 0,
            lrpid: 0,
            object: self.new_object(),
        };
        self.ipc.msg.insert(queue, MSGMNI)
    }

    /// Sends a message. EINVAL, EACCES; `None` when there is no room.
    pub fn msg_send(&mut self, tid: Tid, id: i32, message: Message) -> Result<Option<()>, Errno> {
        let who = self.creds_of(tid);
        let pid = self.task(tid).map_or(0, |t| t.pid);
        let (now, _) = self.now_pair();
        let all: u64 = self.ipc.msg.iter().map(|(_, q)| q.bytes + u64_of(q.messages.len()) * OVERHEAD).sum();
        let queue = self.ipc.msg.get_mut(id)?;
        queue.perm.check(&who, 0o222)?;
        let len = u64_of(message.text.len());
        let room = queue.bytes + len <= queue.most && u64_of(queue.messages.len()) < queue.most;
        if !room || all + len + OVERHEAD > ALL {
            return Ok(None);
        }
        queue.bytes += len;
        queue.messages.push_back(message);
        (queue.stime, queue.lspid) = (now, pid);
        let object = queue.object;
        self.wake(WaitKey::Object(object));
        Ok(Some(()))
    }

    /// Takes the first message that fits; `None` when there is none. EINVAL, EACCES, E2BIG.
    pub fn msg_receive(
        &mut self,
        tid: Tid,
        id: i32,
        room: u64,
        kind: i64,
        flags: u32,
    ) -> Result<Option<Message>, Errno> {
        let who = self.creds_of(tid);
        let pid = self.task(tid).map_or(0, |t| t.pid);
        let (now, _) = self.now_pair();
        let queue = self.ipc.msg.get_mut(id)?;
        queue.perm.check(&who, 0o444)?;
        let Some(at) = queue.find(kind, flags) else { return Ok(None) };
        let len = queue.messages.get(at).map_or(0, |m| u64_of(m.text.len()));
        if len > room && flags & MSG_NOERROR == 0 {
            return Err(Errno::E2BIG);
        }
        if flags & MSG_COPY != 0 {
            return Ok(queue.messages.get(at).cloned());
        }
        let message = queue.messages.remove(at);
        queue.bytes = queue.bytes.saturating_sub(len);
        (queue.rtime, queue.lrpid) = (now, pid);
        let object = queue.object;
        self.wake(WaitKey::Object(object));
        Ok(message)
    }

    /// IPC_RMID: sleepers get EIDRM. EINVAL, EPERM.
    pub fn msg_remove(&mut self, tid: Tid, id: i32) -> Result<(), Errno> {
        let who = self.creds_of(tid);
        self.ipc.msg.get(id)?.perm.check_owner(&who)?;
        let queue = self.ipc.msg.remove(id)?;
        self.wake(WaitKey::Object(queue.object));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_receiver_gets_the_message_that_its_type_means() {
        let m = |kind| Message { kind, text: Vec::new() };
        let q = Queue {
            perm: Perm::default(),
            messages: [m(5), m(3), m(5), m(3)].into(),
            stime: 0,
            rtime: 0,
            ctime: 0,
            bytes: 0,
            most: MSGMNB,
            lspid: 0,
            lrpid: 0,
            object: 0,
        };
        assert_eq!(q.find(0, 0), Some(0));
        assert_eq!(q.find(3, 0), Some(1));
        assert_eq!(q.find(5, MSG_EXCEPT), Some(1));
        assert_eq!(q.find(-9, 0), Some(1));
        assert_eq!(q.find(-2, 0), None);
        assert_eq!(q.find(i64::MIN, 0), Some(1));
        assert_eq!(q.find(3, MSG_COPY), Some(3));
        assert_eq!(q.find(4, MSG_COPY), None);
    }
}

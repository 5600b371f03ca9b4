//! System calls: System V shared memory, semaphores and message queues.

use super::{Arg, Context, Entry, ret};
use crate::errno::Errno;
use crate::ipc::msg::{MSG_COPY, MSG_EXCEPT, MSGMAX, MSGMNB, MSGMNI, Message};
use crate::ipc::sem::{Done, Op, SEMMNI, SEMMNS, SEMMSL, SEMOPM, SEMVMX};
use crate::ipc::shm::{SHM_LOCKED, SHMMAX, SHMMNI};
use crate::ipc::{IPC_NOWAIT, Object, Perm, Table};
use crate::num::{int, low16, low32, u64_of, us};
use crate::platform::{Ns, PAGE_SIZE};
use crate::task::Creds;
use crate::wait::{Block, Cause, Outcome, Restart, SysResult, WaitKey};

const FLAGS: Arg = Arg::Flags(&[("IPC_CREAT", 0o1000), ("IPC_EXCL", 0o2000), ("IPC_NOWAIT", 0o4000)]);

/// This family's calls.
pub const TABLE: &[Entry] = &[
    Entry::partial(29, "shmget", &[Arg::Hex, Arg::Uint, FLAGS], "no huge pages", shmget),
    Entry::full(30, "shmat", &[Arg::Int, Arg::Ptr, Arg::Octal], shmat),
    Entry::partial(31, "shmctl", &[Arg::Int, Arg::Int, Arg::Ptr], "locking has no effect", shmctl),
    Entry::partial(64, "semget", &[Arg::Hex, Arg::Int, FLAGS], "1,048,576 semaphores in all", semget),
    Entry::partial(65, "semop", &[Arg::Int, Arg::Ptr, Arg::Uint], UNDO, semop),
    Entry::full(66, "semctl", &[Arg::Int, Arg::Int, Arg::Int, Arg::Hex], semctl),
    Entry::full(67, "shmdt", &[Arg::Ptr], shmdt),
    Entry::full(68, "msgget", &[Arg::Hex, FLAGS], msgget),
    Entry::partial(
        69,
        "msgsnd",
        &[Arg::Int, Arg::Ptr, Arg::Uint, FLAGS],
        "32 MiB in all queues together, beyond which it waits",
        msgsnd,
    ),
    Entry::full(70, "msgrcv", &[Arg::Int, Arg::Ptr, Arg::Uint, Arg::Int, FLAGS], msgrcv),
    Entry::full(71, "msgctl", &[Arg::Int, Arg::Int, Arg::Ptr], msgctl),
    Entry::partial(220, "semtimedop", &[Arg::Int, Arg::Ptr, Arg::Uint, Arg::Ptr], UNDO, semtimedop),
];

const UNDO: &str = "262,144 semaphores with adjustments of SEM_UNDO in all (ENOSPC)";

const IPC_RMID: i32 = 0;
const IPC_SET: i32 = 1;
const IPC_STAT: i32 = 2;
const IPC_INFO: i32 = 3;

/// Builds a structure in guest memory's layout.
#[derive(Default)]
struct Words(Vec<u8>);

impl Words {
    fn u32s(mut self, words: &[u32]) -> Self {
        self.0.extend(words.iter().flat_map(|w| w.to_le_bytes()));
        self
    }

    fn u64s(mut self, words: &[u64]) -> Self {
        self.0.extend(words.iter().flat_map(|w| w.to_le_bytes()));
        self
    }

    fn times(self, words: &[i64]) -> Self {
        let words: Vec<u64> = words.iter().map(|w| w.cast_unsigned()).collect();
        self.u64s(&words)
    }

    /// `struct ipc64_perm`.
    fn perm(self, p: &Perm) -> Self {
        self.u32s(&[p.key.cast_unsigned(), p.uid, p.gid, p.cuid, p.cgid, p.mode, u32::from(p.seq), 0])
            .u64s(&[0, 0])
    }
}

fn put(c: &mut Context<'_>, va: u64, words: Words) -> Result<(), Errno> {
    c.k.copy_out(c.tid, va, &words.0)
}

fn word32(b: &[u8], at: usize) -> u32 {
    b.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_le_bytes)
}

/// IPC_SET: owner and mode from the start of a structure of `len` bytes, which is returned.
fn read_set(c: &mut Context<'_>, va: u64, len: usize) -> Result<Vec<u8>, Errno> {
    c.k.copy_in_vec(c.tid, va, len)
}

fn apply_set(p: &mut Perm, b: &[u8], who: &Creds) -> Result<(), Errno> {
    p.check_owner(who)?;
    let (uid, gid) = (word32(b, 4), word32(b, 8));
    if uid == u32::MAX || gid == u32::MAX {
        return Err(Errno::EINVAL);
    }
    (p.uid, p.gid) = (uid, gid);
    p.mode = p.mode & !0o777 | word32(b, 20) & 0o777;
    Ok(())
}

/// The object of a STAT command: by identifier, or by index for the commands that list them; with the value that the call returns.
fn stat_id<T: Object>(
    table: &Table<T>,
    id: i32,
    by_index: bool,
    check: Option<&Creds>,
) -> Result<(i32, u64), Errno> {
    let (id, value) = if by_index {
        let id = u32::try_from(id).ok().and_then(|i| table.id_at(i)).ok_or(Errno::EINVAL)?;
        (id.cast_signed(), u64::from(id))
    } else {
        (id, 0)
    };
    let object = table.get(id)?;
    if let Some(who) = check {
        object.perm().check(who, 0o444)?;
    }
    Ok((id, value))
}

fn shmget(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    ret(c.k.shm_get(c.tid, int(a[0]), a[1], low32(a[2]))?.into())
}

fn shmat(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    ret(c.k.shm_attach(c.tid, int(a[0]), a[1], low32(a[2]))?)
}

fn shmdt(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    c.k.shm_detach(c.tid, a[0]).map(Into::into)
}

fn shmctl(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    const SHM_LOCK: i32 = 11;
    const SHM_UNLOCK: i32 = 12;
    const SHM_STAT: i32 = 13;
    const SHM_INFO: i32 = 14;
    const SHM_STAT_ANY: i32 = 15;
    let (id, command, buf) = (int(a[0]), int(a[1]), a[2]);
    if id < 0 || command < 0 {
        return Err(Errno::EINVAL);
    }
    let who = c.k.creds_of(c.tid);
    match command {
        IPC_INFO => {
            let most = SHMMNI.try_into().unwrap_or(u64::MAX);
            put(c, buf, Words::default().u64s(&[SHMMAX, 1, most, most, SHMMAX, 0, 0, 0, 0]))?;
            ret(c.k.ipc.shm.last_index().into())
        }
        SHM_INFO => {
            let used = u64_of(c.k.ipc.shm.len());
            let pages = c.k.ipc.shm.iter().map(|(_, s)| s.size.div_ceil(PAGE_SIZE)).sum();
            let files: Vec<u64> = c.k.ipc.shm.iter().map(|(_, s)| s.file).collect();
            let mut resident = 0;
            for file in files {
                resident += c.k.file_stat(file).map_or(0, |s| s.blocks / 8);
            }
            put(c, buf, Words::default().u64s(&[used, pages, resident, 0, 0, 0]))?;
            ret(c.k.ipc.shm.last_index().into())
        }
        IPC_STAT | SHM_STAT | SHM_STAT_ANY => {
            let check = (command != SHM_STAT_ANY).then_some(&who);
            let (id, value) = stat_id(&c.k.ipc.shm, id, command != IPC_STAT, check)?;
            let s = c.k.ipc.shm.get(id)?;
            let words = Words::default()
                .perm(&s.perm)
                .u64s(&[s.size])
                .times(&[s.atime, s.dtime, s.ctime])
                .u32s(&[s.cpid, s.lpid])
                .u64s(&[c.k.shm_attached(s.file), 0, 0]);
            put(c, buf, words)?;
            ret(value)
        }
        IPC_SET => {
            let b = read_set(c, buf, 112)?;
            let (now, _) = c.k.now_pair();
            let s = c.k.ipc.shm.get_mut(id)?;
            apply_set(&mut s.perm, &b, &who)?;
            s.ctime = now;
            ret(0)
        }
        IPC_RMID => c.k.shm_remove(c.tid, id).map(Into::into),
        SHM_LOCK | SHM_UNLOCK => {
            let s = c.k.ipc.shm.get_mut(id)?;
            s.perm.check_owner(&who)?;
            s.perm.mode &= !SHM_LOCKED;
            if command == SHM_LOCK {
                s.perm.mode |= SHM_LOCKED;
            }
            ret(0)
        }
        _ => Err(Errno::EINVAL),
    }
}

fn semget(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    ret(c.k.sem_get(c.tid, int(a[0]), int(a[1]), low32(a[2]))?.into())
}

fn semop(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    sem_operate(c, a, None)
}

fn semtimedop(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    let resume = c.k.task(c.tid).and_then(|t| t.resume);
    let deadline = match resume {
        Some(r) => r.deadline,
        None if a[3] == 0 => None,
        None => {
            let ns = super::time::timespec(c, a[3])?;
            Some(c.k.platform.monotonic().saturating_add(ns))
        }
    };
    sem_operate(c, a, deadline)
}

fn sem_operate(c: &mut Context<'_>, a: &[u64; 6], deadline: Option<Ns>) -> SysResult {
    let (id, count) = (int(a[0]), u64::from(low32(a[2])));
    if count < 1 || id < 0 {
        return Err(Errno::EINVAL);
    }
    if count > SEMOPM {
        return Err(Errno::E2BIG);
    }
    let raw = c.k.copy_in_vec(c.tid, a[1], us(count * 6))?;
    let half =
        |b: &[u8], at: usize| b.get(at..at + 2).and_then(|b| b.try_into().ok()).map_or(0, u16::from_le_bytes);
    let ops: Vec<Op> = raw
        .chunks_exact(6)
        .map(|b| Op { index: half(b, 0), change: half(b, 2).cast_signed(), flags: half(b, 4) })
        .collect();
    let resume = c.k.task(c.tid).and_then(|t| t.resume);
    let gone = if resume.is_some() { Errno::EIDRM } else { Errno::EINVAL };
    let object = c.k.ipc.sem.get(id).map_err(|_| gone)?.object;
    match c.k.sem_try(c.tid, id, &ops)? {
        Done::All => ret(0),
        Done::Wait(op) if u32::from(op.flags) & IPC_NOWAIT != 0 => Err(Errno::EAGAIN),
        Done::Wait(_) if resume.is_some_and(|r| r.cause == Cause::TimedOut) => Err(Errno::EAGAIN),
        Done::Wait(_) => sleep(object, deadline),
    }
}

/// Sleeps on an object; never restarted after a signal handler (signal(7)).
fn sleep(object: u64, deadline: Option<Ns>) -> SysResult {
    let (on, relative, restart) = (vec![WaitKey::Object(object)], true, Restart::Never);
    Ok(Outcome::Block(Block { on, deadline, relative, restart, memo: [0; 2] }))
}

fn semctl(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    const GETPID: i32 = 11;
    const GETVAL: i32 = 12;
    const GETALL: i32 = 13;
    const GETNCNT: i32 = 14;
    const GETZCNT: i32 = 15;
    const SETVAL: i32 = 16;
    const SETALL: i32 = 17;
    const SEM_STAT: i32 = 18;
    const SEM_INFO: i32 = 19;
    const SEM_STAT_ANY: i32 = 20;
    let (id, number, command, arg) = (int(a[0]), int(a[1]), int(a[2]), a[3]);
    if id < 0 {
        return Err(Errno::EINVAL);
    }
    let who = c.k.creds_of(c.tid);
    match command {
        IPC_INFO | SEM_INFO => {
            let (mut sets, mut all) = (20, SEMVMX.cast_unsigned());
            if command == SEM_INFO {
                sets = u32::try_from(c.k.ipc.sem.len()).unwrap_or(u32::MAX);
                let sum = c.k.ipc.sem.iter().map(|(_, s)| s.sems.len()).sum::<usize>();
                all = u32::try_from(sum).unwrap_or(u32::MAX);
            }
            let (mni, mns) = (u32::try_from(SEMMNI).unwrap_or(0), u32::try_from(SEMMNS).unwrap_or(0));
            let opm = u32::try_from(SEMOPM).unwrap_or(0);
            let vmx = SEMVMX.cast_unsigned();
            put(c, arg, Words::default().u32s(&[mns, mni, mns, mns, SEMMSL, opm, opm, sets, vmx, all]))?;
            ret(c.k.ipc.sem.last_index().into())
        }
        IPC_STAT | SEM_STAT | SEM_STAT_ANY => {
            let check = (command != SEM_STAT_ANY).then_some(&who);
            let (id, value) = stat_id(&c.k.ipc.sem, id, command != IPC_STAT, check)?;
            let s = c.k.ipc.sem.get(id)?;
            let words = Words::default().perm(&s.perm).times(&[s.otime, 0, s.ctime, 0]).u64s(&[
                u64_of(s.sems.len()),
                0,
                0,
            ]);
            put(c, arg, words)?;
            ret(value)
        }
        IPC_SET => {
            let b = read_set(c, arg, 104)?;
            let (now, _) = c.k.now_pair();
            let s = c.k.ipc.sem.get_mut(id)?;
            apply_set(&mut s.perm, &b, &who)?;
            s.ctime = now;
            ret(0)
        }
        IPC_RMID => c.k.sem_remove(c.tid, id).map(Into::into),
        GETALL => {
            let s = c.k.ipc.sem.get(id)?;
            s.perm.check(&who, 0o444)?;
            let bytes: Vec<u8> = s.sems.iter().flat_map(|s| s.value.to_le_bytes()).collect();
            c.k.copy_out(c.tid, arg, &bytes)?;
            ret(0)
        }
        SETALL => {
            let s = c.k.ipc.sem.get(id)?;
            s.perm.check(&who, 0o222)?;
            let len = s.sems.len() * 2;
            let raw = c.k.copy_in_vec(c.tid, arg, len)?;
            let values: Vec<u16> =
                raw.chunks_exact(2).map(|b| b.try_into().map_or(0, u16::from_le_bytes)).collect();
            c.k.sem_set(c.tid, id, 0, &values).map(Into::into)
        }
        SETVAL => {
            let value = int(arg);
            if !(0..=SEMVMX).contains(&value) {
                return Err(Errno::ERANGE);
            }
            let s = c.k.ipc.sem.get(id)?;
            let index = u16::try_from(number).ok().filter(|n| usize::from(*n) < s.sems.len());
            let index = index.ok_or(Errno::EINVAL)?;
            s.perm.check(&who, 0o222)?;
            c.k.sem_set(c.tid, id, index, &[u16::try_from(value).unwrap_or(0)]).map(Into::into)
        }
        GETPID | GETVAL | GETNCNT | GETZCNT => {
            let s = c.k.ipc.sem.get(id)?;
            s.perm.check(&who, 0o444)?;
            let index = u16::try_from(number).map_err(|_| Errno::EINVAL)?;
            let sem = s.sems.get(usize::from(index)).ok_or(Errno::EINVAL)?;
            ret(match command {
                GETPID => u64::from(sem.pid),
                GETVAL => u64::from(sem.value),
                GETNCNT => c.k.sem_sleepers(s, index, false),
                _ => c.k.sem_sleepers(s, index, true),
            })
        }
        _ => Err(Errno::EINVAL),
    }
}

fn msgget(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    ret(c.k.msg_get(c.tid, int(a[0]), low32(a[1]))?.into())
}

fn msgsnd(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    let (id, va, len, flags) = (int(a[0]), a[1], a[2], low32(a[3]));
    let kind = c.k.get_u64(c.tid, va)?.cast_signed();
    if len > MSGMAX || id < 0 || kind < 1 {
        return Err(Errno::EINVAL);
    }
    let text = c.k.copy_in_vec(c.tid, va.wrapping_add(8), us(len))?;
    let resumed = c.k.task(c.tid).and_then(|t| t.resume).is_some();
    let queue = c.k.ipc.msg.get(id).map_err(|_| if resumed { Errno::EIDRM } else { Errno::EINVAL })?;
    let object = queue.object;
    match c.k.msg_send(c.tid, id, Message { kind, text })? {
        Some(()) => ret(0),
        None if flags & IPC_NOWAIT != 0 => Err(Errno::EAGAIN),
        None => sleep(object, None),
    }
}

fn msgrcv(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    let (id, va, len, kind, flags) = (int(a[0]), a[1], a[2], a[3].cast_signed(), low32(a[4]));
    if id < 0 || len.cast_signed() < 0 {
        return Err(Errno::EINVAL);
    }
    if flags & MSG_COPY != 0 && (flags & MSG_EXCEPT != 0 || flags & IPC_NOWAIT == 0) {
        return Err(Errno::EINVAL);
    }
    let resumed = c.k.task(c.tid).and_then(|t| t.resume).is_some();
    let queue = c.k.ipc.msg.get(id).map_err(|_| if resumed { Errno::EIDRM } else { Errno::EINVAL })?;
    let object = queue.object;
    let Some(m) = c.k.msg_receive(c.tid, id, len, kind, flags)? else {
        return if flags & IPC_NOWAIT != 0 { Err(Errno::ENOMSG) } else { sleep(object, None) };
    };
    // As on Linux, a message that cannot be stored is lost.
    let n = us(len).min(m.text.len());
    c.k.put_u64(c.tid, va, m.kind.cast_unsigned())?;
    c.k.copy_out(c.tid, va.wrapping_add(8), m.text.get(..n).unwrap_or_default())?;
    ret(u64_of(n))
}

fn msgctl(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    const MSG_STAT: i32 = 11;
    const MSG_INFO: i32 = 12;
    const MSG_STAT_ANY: i32 = 13;
    let (id, command, buf) = (int(a[0]), int(a[1]), a[2]);
    if id < 0 || command < 0 {
        return Err(Errno::EINVAL);
    }
    let who = c.k.creds_of(c.tid);
    match command {
        IPC_INFO | MSG_INFO => {
            let small = |n: u64| low32(n.min(u64::from(u32::MAX)));
            let (most, queue, queues) = (small(MSGMAX), small(MSGMNB), small(u64_of(MSGMNI)));
            let segments = u32::from(low16(0xffff));
            let (mut pool, mut map, mut messages) = (queues.saturating_mul(queue) / 1024, queue, queue);
            if command == MSG_INFO {
                let all =
                    c.k.ipc
                        .msg
                        .iter()
                        .fold((0, 0), |(n, b), (_, q)| (n + u64_of(q.messages.len()), b + q.bytes));
                pool = small(u64_of(c.k.ipc.msg.len()));
                (map, messages) = (small(all.0), small(all.1));
            }
            put(c, buf, Words::default().u32s(&[pool, map, most, queue, queues, 16, messages, segments]))?;
            ret(c.k.ipc.msg.last_index().into())
        }
        IPC_STAT | MSG_STAT | MSG_STAT_ANY => {
            let check = (command != MSG_STAT_ANY).then_some(&who);
            let (id, value) = stat_id(&c.k.ipc.msg, id, command != IPC_STAT, check)?;
            let q = c.k.ipc.msg.get(id)?;
            let words = Words::default()
                .perm(&q.perm)
                .times(&[q.stime, q.rtime, q.ctime])
                .u64s(&[q.bytes, u64_of(q.messages.len()), q.most])
                .u32s(&[q.lspid, q.lrpid])
                .u64s(&[0, 0]);
            put(c, buf, words)?;
            ret(value)
        }
        IPC_SET => {
            let b = read_set(c, buf, 120)?;
            let most = b.get(88..96).and_then(|b| b.try_into().ok()).map_or(0, u64::from_le_bytes);
            let (now, _) = c.k.now_pair();
            let q = c.k.ipc.msg.get_mut(id)?;
            q.perm.check_owner(&who)?;
            if most > MSGMNB && !who.can(crate::task::creds::cap::SYS_RESOURCE) {
                return Err(Errno::EPERM);
            }
            apply_set(&mut q.perm, &b, &who)?;
            (q.most, q.ctime) = (most, now);
            let object = q.object;
            c.k.wake(WaitKey::Object(object));
            ret(0)
        }
        IPC_RMID => c.k.msg_remove(c.tid, id).map(Into::into),
        _ => Err(Errno::EINVAL),
    }
}

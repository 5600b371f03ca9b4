//! Process groups, sessions, user and group ids, capabilities.

use crate::errno::Errno;
use crate::num::{int, low32, u64_of, us};
use crate::signal::frame::le32;
use crate::syscall::{Context, ret};
use crate::task::Creds;
use crate::task::creds::{cap, secure};
use crate::wait::SysResult;

// ---- groups and sessions ----

pub(super) fn target(c: &Context<'_>, pid: u64) -> Result<u32, Errno> {
    let pid = if int(pid) == 0 { c.pid()? } else { u32::try_from(int(pid)).map_err(|_| Errno::ESRCH)? };
    // A thread's id names its process.
    let pid = c.k.task(pid).map_or(pid, |t| t.pid);
    if c.k.exists(pid) { Ok(pid) } else { Err(Errno::ESRCH) }
}

pub(super) fn getpgid(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    let [pid, ..] = *a;
    let pid = target(c, pid)?;
    ret(c.k.processes.get(&pid).map_or(0, |p| u64::from(p.pgid)))
}

pub(super) fn getsid(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    let [pid, ..] = *a;
    let pid = target(c, pid)?;
    ret(c.k.processes.get(&pid).map_or(0, |p| u64::from(p.sid)))
}

pub(super) fn setpgid(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    let [pid, pgid, ..] = *a;
    if int(pgid) < 0 {
        return Err(Errno::EINVAL);
    }
    let me = c.pid()?;
    let pid = if int(pid) == 0 { me } else { u32::try_from(int(pid)).map_err(|_| Errno::ESRCH)? };
    let pgid = if int(pgid) == 0 { pid } else { low32(pgid) };
    let mine = c.k.processes.get(&me).map_or(0, |p| p.sid);
    let p = c.k.processes.get(&pid).ok_or(Errno::ESRCH)?;
    if p.parent == me && pid != me {
        if p.sid != mine {
            return Err(Errno::EPERM);
        }
        if p.aux.executed {
            return Err(Errno::EACCES);
        }
    } else if pid != me {
        return Err(Errno::ESRCH);
    }
    let in_session = c.k.processes.values().any(|q| q.pgid == pgid && q.sid == mine);
    if p.sid == pid || (pgid != pid && !in_session) {
        return Err(Errno::EPERM);
    }
    if let Some(p) = c.k.processes.get_mut(&pid) {
        p.pgid = pgid;
    }
    ret(0)
}

pub(super) fn setsid(c: &mut Context<'_>, _: &[u64; 6]) -> SysResult {
    let me = c.pid()?;
    if c.k.processes.values().any(|p| p.pgid == me) {
        return Err(Errno::EPERM);
    }
    if let Some(p) = c.k.processes.get_mut(&me) {
        (p.sid, p.pgid) = (me, me);
        p.aux.tty_given_up = false;
    }
    ret(u64::from(me))
}

// ---- credentials ----

/// One family of ids: real, effective, saved, file system.
type Ids = [u32; 4];
const KEEP: u32 = u32::MAX;

pub(super) fn ids(c: &Context<'_>, group: bool) -> Result<(Ids, bool), Errno> {
    let x = &c.k.process_of(c.tid).ok_or(Errno::ESRCH)?.creds;
    let ids = if group { [x.gid, x.egid, x.sgid, x.fsgid] } else { [x.uid, x.euid, x.suid, x.fsuid] };
    Ok((ids, x.can(if group { cap::SETGID } else { cap::SETUID })))
}

fn own(c: &mut Context<'_>) -> Result<Creds, Errno> {
    c.k.process_of(c.tid).map(|p| p.creds.clone()).ok_or(Errno::ESRCH)
}

pub(super) fn set_ids(c: &mut Context<'_>, group: bool, new: Ids) -> SysResult {
    let old = own(c)?;
    let mut x = old.clone();
    if group {
        [x.gid, x.egid, x.sgid, x.fsgid] = new;
    } else {
        [x.uid, x.euid, x.suid, x.fsuid] = new;
        x.after_setuid(&old);
    }
    c.k.commit_creds(c.tid, x);
    ret(0)
}

pub(super) fn set_one(c: &mut Context<'_>, group: bool, id: u32) -> SysResult {
    if id == KEEP {
        return Err(Errno::EINVAL);
    }
    let ([r, _, s, _], root) = ids(c, group)?;
    match (root, id == r || id == s) {
        (true, _) => set_ids(c, group, [id; 4]),
        (false, true) => set_ids(c, group, [r, id, s, id]),
        _ => Err(Errno::EPERM),
    }
}

pub(super) fn set_re(c: &mut Context<'_>, group: bool, nr: u32, ne: u32) -> SysResult {
    let ([r, e, s, _], root) = ids(c, group)?;
    let bad_r = nr != KEEP && nr != r && nr != e;
    let bad_e = ne != KEEP && ne != r && ne != e && ne != s;
    if !root && (bad_r || bad_e) {
        return Err(Errno::EPERM);
    }
    let pick = |new: u32, old: u32| if new == KEEP { old } else { new };
    let effective = pick(ne, e);
    let saved = if nr != KEEP || (ne != KEEP && ne != r) { effective } else { s };
    set_ids(c, group, [pick(nr, r), effective, saved, effective])
}

pub(super) fn set_res(c: &mut Context<'_>, group: bool, [nr, ne, ns]: [u32; 3]) -> SysResult {
    let ([r, e, s, _], root) = ids(c, group)?;
    let bad = |new: u32| new != KEEP && ![r, e, s].contains(&new);
    if !root && (bad(nr) || bad(ne) || bad(ns)) {
        return Err(Errno::EPERM);
    }
    let pick = |new: u32, old: u32| if new == KEEP { old } else { new };
    let effective = pick(ne, e);
    set_ids(c, group, [pick(nr, r), effective, pick(ns, s), effective])
}

pub(super) fn set_fs(c: &mut Context<'_>, group: bool, id: u32) -> SysResult {
    let ([r, e, s, f], root) = ids(c, group)?;
    if id != KEEP && (root || [r, e, s, f].contains(&id)) {
        let old = own(c)?;
        let mut x = old.clone();
        if group {
            x.fsgid = id;
        } else {
            x.fsuid = id;
            x.after_setfsuid(&old);
        }
        c.k.commit_creds(c.tid, x);
    }
    ret(u64::from(f))
}

pub(super) fn get_res(c: &mut Context<'_>, group: bool, out: [u64; 3]) -> SysResult {
    let ([r, e, s, _], _) = ids(c, group)?;
    for (va, id) in out.into_iter().zip([r, e, s]) {
        c.k.put_u32(c.tid, va, id)?;
    }
    ret(0)
}

pub(super) fn setuid(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    let [x, ..] = *a;
    set_one(c, false, low32(x))
}
pub(super) fn setgid(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    let [x, ..] = *a;
    set_one(c, true, low32(x))
}
pub(super) fn setreuid(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    let [r, e, ..] = *a;
    set_re(c, false, low32(r), low32(e))
}
pub(super) fn setregid(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    let [r, e, ..] = *a;
    set_re(c, true, low32(r), low32(e))
}
pub(super) fn setresuid(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    let [r, e, s, ..] = *a;
    set_res(c, false, [r, e, s].map(low32))
}
pub(super) fn setresgid(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    let [r, e, s, ..] = *a;
    set_res(c, true, [r, e, s].map(low32))
}
pub(super) fn setfsuid(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    let [x, ..] = *a;
    set_fs(c, false, low32(x))
}
pub(super) fn setfsgid(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    let [x, ..] = *a;
    set_fs(c, true, low32(x))
}
pub(super) fn getresuid(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    let [r, e, s, ..] = *a;
    get_res(c, false, [r, e, s])
}
pub(super) fn getresgid(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    let [r, e, s, ..] = *a;
    get_res(c, true, [r, e, s])
}

pub(super) fn getgroups(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    let [n, out, ..] = *a;
    let groups = c.k.process_of(c.tid).ok_or(Errno::ESRCH)?.creds.groups.clone();
    let room = usize::try_from(int(n)).map_err(|_| Errno::EINVAL)?;
    if room != 0 {
        if groups.len() > room {
            return Err(Errno::EINVAL);
        }
        let b: Vec<u8> = groups.iter().flat_map(|g| g.to_le_bytes()).collect();
        c.k.copy_out(c.tid, out, &b)?;
    }
    ret(u64_of(groups.len()))
}

pub(super) fn setgroups(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    let [n, list, ..] = *a;
    let (_, root) = ids(c, true)?;
    if !root {
        return Err(Errno::EPERM);
    }
    let n = us(u64::from(low32(n)));
    if n > 65536 {
        return Err(Errno::EINVAL);
    }
    let b = c.k.copy_in_vec(c.tid, list, n.saturating_mul(4))?;
    let groups = b.chunks_exact(4).map(|x| crate::signal::frame::le32(x, 0)).collect();
    c.k.process_of_mut(c.tid).ok_or(Errno::ESRCH)?.creds.groups = groups;
    ret(0)
}

/// Reads a capability header: its version's number of words and the process. A version that is not known is answered with
/// the one that is.
pub(super) fn cap_header(c: &mut Context<'_>, va: u64, data: u64) -> Result<Option<(usize, i32)>, Errno> {
    let version = c.k.get_u32(c.tid, va)?;
    let pid = c.k.get_u32(c.tid, va.wrapping_add(4))?.cast_signed();
    let words = match version {
        0x1998_0330 => 1,
        0x2007_1026 | 0x2008_0522 => 2,
        _ => {
            c.k.put_u32(c.tid, va, 0x2008_0522)?;
            return if data == 0 { Ok(None) } else { Err(Errno::EINVAL) };
        }
    };
    Ok(Some((words, pid)))
}

pub(super) fn capget(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    let [header, data, ..] = *a;
    let Some((words, pid)) = cap_header(c, header, data)? else { return ret(0) };
    if data == 0 {
        return ret(0);
    }
    let pid = u32::try_from(pid).map_err(|_| Errno::EINVAL)?;
    let pid = target(c, u64::from(pid))?;
    let caps = c.k.processes.get(&pid).ok_or(Errno::ESRCH)?.creds.caps;
    let mut b = Vec::new();
    for shift in [0, 32].into_iter().take(words) {
        for set in [caps.effective, caps.permitted, caps.inheritable] {
            b.extend(low32(set >> shift).to_le_bytes());
        }
    }
    c.k.copy_out(c.tid, data, &b)?;
    ret(0)
}

pub(super) fn capset(c: &mut Context<'_>, a: &[u64; 6]) -> SysResult {
    let [header, data, ..] = *a;
    let Some((words, pid)) = cap_header(c, header, data)? else { return Err(Errno::EINVAL) };
    if pid != 0 && u32::try_from(pid) != Ok(c.tid) {
        return Err(Errno::EPERM);
    }
    let b = c.k.copy_in_vec(c.tid, data, words * 12)?;
    let set = |at: usize| (u64::from(le32(&b, at)) | u64::from(le32(&b, at + 12)) << 32) & cap::ALL;
    let mut x = own(c)?;
    x.set_caps(set(0), set(4), set(8))?;
    c.k.commit_creds(c.tid, x);
    ret(0)
}

/// PR_CAPBSET_READ, PR_CAPBSET_DROP.
pub(super) fn bounding(c: &mut Context<'_>, drop: bool, number: u64) -> SysResult {
    let mut x = own(c)?;
    if drop && !x.can(cap::SETPCAP) {
        return Err(Errno::EPERM);
    }
    let bit = bit(number).ok_or(Errno::EINVAL)?;
    if !drop {
        return ret(u64::from(x.caps.bounding & bit != 0));
    }
    x.caps.bounding &= !bit;
    c.k.commit_creds(c.tid, x);
    ret(0)
}

fn bit(number: u64) -> Option<u64> {
    u32::try_from(number).ok().filter(|n| *n <= cap::LAST).map(|n| 1 << n)
}

/// PR_CAP_AMBIENT.
pub(super) fn ambient(c: &mut Context<'_>, [what, number, x4, x5]: [u64; 4]) -> SysResult {
    let mut x = own(c)?;
    if what == 4 {
        if number | x4 | x5 != 0 {
            return Err(Errno::EINVAL);
        }
        x.caps.ambient = 0;
        c.k.commit_creds(c.tid, x);
        return ret(0);
    }
    let bit = bit(number).filter(|_| x4 | x5 == 0).ok_or(Errno::EINVAL)?;
    match what {
        1 => return ret(u64::from(x.caps.ambient & bit != 0)),
        2 => {
            let held = x.caps.permitted & x.caps.inheritable & bit != 0;
            if !held || x.securebits & secure::NO_CAP_AMBIENT_RAISE != 0 {
                return Err(Errno::EPERM);
            }
            x.caps.ambient |= bit;
        }
        3 => x.caps.ambient &= !bit,
        _ => return Err(Errno::EINVAL),
    }
    c.k.commit_creds(c.tid, x);
    ret(0)
}

/// PR_SET_SECUREBITS.
pub(super) fn set_securebits(c: &mut Context<'_>, bits: u64) -> SysResult {
    let mut x = own(c)?;
    x.set_securebits(u32::try_from(bits).map_err(|_| Errno::EPERM)?)?;
    c.k.commit_creds(c.tid, x);
    ret(0)
}

/// PR_SET_KEEPCAPS.
pub(super) fn set_keep_caps(c: &mut Context<'_>, on: u64) -> SysResult {
    let mut x = own(c)?;
    if on > 1 {
        return Err(Errno::EINVAL);
    }
    if x.securebits & secure::KEEP_CAPS_LOCKED != 0 {
        return Err(Errno::EPERM);
    }
    x.securebits = x.securebits & !secure::KEEP_CAPS | if on == 1 { secure::KEEP_CAPS } else { 0 };
    c.k.commit_creds(c.tid, x);
    ret(0)
}

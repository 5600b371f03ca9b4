//! AF_NETLINK, protocol NETLINK_GENERIC: the controller, which tells of families by name or number, and TASKSTATS, which tells what a
//! thread or a process has used (Documentation/accounting/taskstats.rst). There are no other families and no events.

use super::netlink::{Request, attribute, attributes, message};
use crate::errno::Errno;
use crate::kernel::Kernel;
use crate::num::low8;
use crate::signal::frame::{le32, put};
use crate::task::{Process, Task};

const NLM_F_MULTI: u16 = 2;
const NLM_F_DUMP: u16 = 0x300;
const NLMSG_DONE: u16 = 3;
/// GENL_ID_CTRL.
const CONTROLLER: u16 = 16;
/// The number of TASKSTATS: the first that Linux gives out by itself is 19.
const TASKSTATS: u16 = 19;
const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_CMD_GETPOLICY: u8 = 10;
const TASKSTATS_CMD_GET: u8 = 1;
const CGROUPSTATS_CMD_GET: u8 = 4;
/// Version and bytes of `struct taskstats` as of Linux 6.6.
const STATS_VERSION: u16 = 13;
const STATS_LEN: usize = 416;

/// What the controller says of a family.
struct Family {
    id: u16,
    name: &'static [u8],
    version: u32,
    /// Commands and their flags: 1 needs CAP_NET_ADMIN, 2 asks for one, 4 for a list, 8 has a policy.
    commands: &'static [(u32, u32)],
    /// A multicast group: name and number.
    group: Option<(&'static [u8], u32)>,
}

const FAMILIES: [Family; 2] = [
    Family {
        id: CONTROLLER,
        name: b"nlctrl\0",
        version: 2,
        commands: &[(3, 14), (10, 12)],
        group: Some((b"notify\0", 16)),
    },
    Family { id: TASKSTATS, name: b"TASKSTATS\0", version: 1, commands: &[(1, 11), (4, 10)], group: None },
];

impl Family {
    /// What CTRL_CMD_NEWFAMILY says.
    fn describe(&self) -> Vec<u8> {
        let mut out = vec![1, 2, 0, 0];
        attribute(&mut out, 2, self.name);
        attribute(&mut out, 1, &self.id.to_le_bytes());
        attribute(&mut out, 3, &self.version.to_le_bytes());
        attribute(&mut out, 4, &[0; 4]);
        // Attributes are each command's own.
        attribute(&mut out, 5, &[0; 4]);
        let mut commands = Vec::new();
        for (n, (command, flags)) in (1u16..).zip(self.commands) {
            let mut one = Vec::new();
            attribute(&mut one, 1, &command.to_le_bytes());
            attribute(&mut one, 2, &flags.to_le_bytes());
            attribute(&mut commands, n, &one);
        }
        attribute(&mut out, 6, &commands);
        if let Some((name, id)) = self.group {
            let (mut groups, mut one) = (Vec::new(), Vec::new());
            attribute(&mut one, 2, &id.to_le_bytes());
            attribute(&mut one, 1, name);
            attribute(&mut groups, 1, &one);
            attribute(&mut out, 7, &groups);
        }
        out
    }
}

/// The last attribute of a kind, as Linux's table of them has it.
fn last(list: &[(u16, Vec<u8>)], kind: u16) -> Option<&[u8]> {
    list.iter().rev().find(|(k, _)| *k == kind).map(|(_, data)| &data[..])
}

/// A 32-bit attribute. ERANGE when it is too short.
fn number(list: &[(u16, Vec<u8>)], kind: u16) -> Result<Option<u32>, Errno> {
    match last(list, kind) {
        None => Ok(None),
        Some(data) if data.len() < 4 => Err(Errno::ERANGE),
        Some(data) => Ok(Some(le32(data, 0))),
    }
}

/// CTRL_CMD_GETFAMILY for one. ENOENT, EINVAL, ERANGE.
fn find_family(list: &[(u16, Vec<u8>)]) -> Result<&'static Family, Errno> {
    let id = match last(list, 1) {
        Some(data) if data.len() < 2 => return Err(Errno::ERANGE),
        Some(data) => data.first_chunk::<2>().map(|b| u16::from_le_bytes(*b)),
        None => None,
    };
    let name = match last(list, 2) {
        // A string of up to 15 bytes with its end.
        Some(data) => {
            let end = data.iter().take(16).position(|b| *b == 0).ok_or(Errno::EINVAL)?;
            let len = data.len() - usize::from(data.last() == Some(&0));
            if len > 15 {
                return Err(Errno::ERANGE);
            }
            data.get(..end)
        }
        None => None,
    };
    let by_name = |f: &&Family| f.name.split_last().is_some_and(|(_, n)| Some(n) == name);
    match (id, name) {
        (_, Some(_)) => FAMILIES.iter().find(by_name).ok_or(Errno::ENOENT),
        (Some(id), _) => FAMILIES.iter().find(|f| f.id == id).ok_or(Errno::ENOENT),
        _ => Err(Errno::EINVAL),
    }
}

impl Kernel {
    /// The messages that answer a request; `root` has CAP_NET_ADMIN. ENOENT, EINVAL, ERANGE, EOPNOTSUPP, EPERM, ESRCH.
    pub(super) fn generic_answer(
        &self,
        r: &Request<'_>,
        port: u32,
        root: bool,
    ) -> Result<Vec<Vec<u8>>, Errno> {
        let family = FAMILIES.iter().find(|f| f.id == r.kind).ok_or(Errno::ENOENT)?;
        let (head, rest) = r.body.split_first_chunk::<4>().ok_or(Errno::EINVAL)?;
        let [command, ..] = *head;
        let dump = r.flags & NLM_F_DUMP != 0;
        let known = family.commands.iter().find(|(c, _)| low8(u64::from(*c)) == command);
        let (_, flags) = known.ok_or(Errno::EOPNOTSUPP)?;
        if flags & if dump { 4 } else { 2 } == 0 {
            return Err(Errno::EOPNOTSUPP);
        }
        if flags & 1 != 0 && !root {
            return Err(Errno::EPERM);
        }
        let list = attributes(rest);
        let one = |body: &[u8]| vec![message(r.kind, 0, r.sequence, port, body)];
        match (r.kind, command) {
            (CONTROLLER, CTRL_CMD_GETFAMILY) if dump => {
                let mut all = Vec::new();
                for f in &FAMILIES {
                    all.extend(message(r.kind, NLM_F_MULTI, r.sequence, port, &f.describe()));
                }
                Ok(vec![all, message(NLMSG_DONE, NLM_F_MULTI, r.sequence, port, &[0; 4])])
            }
            (CONTROLLER, CTRL_CMD_GETFAMILY) => Ok(one(&find_family(&list)?.describe())),
            // Policies are how Linux checks attributes; none are told of.
            (CONTROLLER, CTRL_CMD_GETPOLICY) => {
                find_family(&list)?;
                Ok(vec![message(NLMSG_DONE, NLM_F_MULTI, r.sequence, port, &[0; 4])])
            }
            (TASKSTATS, TASKSTATS_CMD_GET) => {
                // Registering for the ends of tasks is for the first pid namespace, which no container is in.
                if last(&list, 3).is_some() || last(&list, 4).is_some() {
                    return Err(Errno::EINVAL);
                }
                let (pid, tgid) = (number(&list, 1)?, number(&list, 2)?);
                let (kind, nest, id, stats) = match (pid, tgid) {
                    (Some(pid), _) => (1, 4, pid, self.task_stats(pid).ok_or(Errno::ESRCH)?),
                    (_, Some(tgid)) => (2, 5, tgid, self.process_stats(tgid).ok_or(Errno::ESRCH)?),
                    _ => return Err(Errno::EINVAL),
                };
                let mut inner = Vec::new();
                attribute(&mut inner, kind, &id.to_le_bytes());
                attribute(&mut inner, 3, &stats);
                // TASKSTATS_CMD_NEW
                let mut body = vec![2, 1, 0, 0];
                attribute(&mut body, nest, &inner);
                Ok(one(&body))
            }
            // There are no statistics of control groups.
            (_, CGROUPSTATS_CMD_GET) => Err(Errno::EINVAL),
            _ => Err(Errno::EOPNOTSUPP),
        }
    }

    /// `struct taskstats` of a thread.
    fn task_stats(&self, tid: u32) -> Option<[u8; STATS_LEN]> {
        let task = self.tasks.get(&tid)?;
        let process = self.processes.get(&task.pid)?;
        let (user, system) = self.task_times(task);
        let mut b = self.stats_of(process, user, system);
        self.describe_task(process, task, &mut b);
        Some(b)
    }

    /// `struct taskstats` of a process: what all of its threads used. The rest of it is about single threads.
    fn process_stats(&self, pid: u32) -> Option<[u8; STATS_LEN]> {
        let process = self.processes.get(&pid).filter(|p| p.zombie.is_none())?;
        let (user, system) = self.process_times(pid);
        Some(self.stats_of(process, user, system))
    }

    /// Times: `user` and `system` in ns.
    fn stats_of(&self, process: &Process, user: u64, system: u64) -> [u8; STATS_LEN] {
        let mut b = [0; STATS_LEN];
        let age = self.platform.monotonic().saturating_sub(process.started);
        put(&mut b, 0, &STATS_VERSION.to_le_bytes());
        let used = user.saturating_add(system);
        for (at, x) in [
            (64, used),
            (72, used),
            (144, age / 1000),
            (152, user / 1000),
            (160, system / 1000),
            (288, user / 1000),
            (296, system / 1000),
        ] {
            put(&mut b, at, &x.to_le_bytes());
        }
        b
    }

    /// What is said of a thread alone: names, numbers, memory. Counters that are not kept (page faults, switches, I/O) stay 0.
    fn describe_task(&self, process: &Process, task: &Task, b: &mut [u8; STATS_LEN]) {
        let age = self.platform.monotonic().saturating_sub(process.started);
        let began = self.platform.realtime().saturating_sub(age) / 1_000_000_000;
        let name = task.name.split(|c| *c == 0).next().unwrap_or_default();
        put(b, 9, &[low8(u64::from(task.aux.nice.cast_unsigned()))]);
        put(b, 80, name.get(..name.len().min(31)).unwrap_or_default());
        put(b, 112, &[low8(u64::from(task.aux.policy))]);
        for (at, x) in [
            (120, process.creds.uid),
            (124, process.creds.gid),
            (128, task.tid),
            (132, process.parent),
            (136, crate::num::low32(began)),
            (368, process.pid),
        ] {
            put(b, at, &x.to_le_bytes());
        }
        let memory = self.mms.get(task.mm).map_or(0, |m| m.total / 1024);
        for (at, x) in [(208, memory), (344, began), (376, age / 1000)] {
            put(b, at, &x.to_le_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::Limits;
    use crate::net::netlink::requests;
    use crate::platform::fake::FakePlatform;
    use crate::signal::frame::le64;

    fn ask(kind: u16, flags: u16, root: bool, body: &[u8]) -> Result<Vec<Vec<u8>>, Errno> {
        let mut k = Kernel::new(std::sync::Arc::new(FakePlatform::new(64 << 20)), Limits::default()).unwrap();
        let files = k.fd_table_new();
        crate::exec::test_task(&mut k, 1, 0, files, 0);
        let bytes = message(kind, flags | 1, 7, 0, body);
        k.generic_answer(&requests(&bytes)[0], 9, root)
    }

    fn with(command: u8, kind: u16, data: &[u8]) -> Vec<u8> {
        let mut body = vec![command, 1, 0, 0];
        attribute(&mut body, kind, data);
        body
    }

    #[test]
    fn a_family_is_found_by_name_and_by_number() {
        let by_name = ask(16, 0, false, &with(3, 2, b"TASKSTATS\0")).unwrap();
        assert_eq!(by_name, ask(16, 0, false, &with(3, 1, &[19, 0])).unwrap());
        let list = attributes(&requests(&by_name[0])[0].body[4..]);
        assert_eq!(list[0], (2, b"TASKSTATS\0".to_vec()));
        assert_eq!(list[1], (1, vec![19, 0]));
        assert_eq!(ask(16, 0, false, &with(3, 2, b"other\0")), Err(Errno::ENOENT));
        assert_eq!(ask(16, 0, false, &with(3, 1, &[1])), Err(Errno::ERANGE));
        assert_eq!(ask(16, 0, false, &with(3, 2, b"nlctrl")), Err(Errno::EINVAL));
        assert_eq!(ask(16, 0, false, &with(3, 2, &[b'x'; 40])), Err(Errno::EINVAL));
        assert_eq!(ask(16, 0, false, &[3, 1, 0, 0]), Err(Errno::EINVAL));
        assert_eq!(ask(16, 0, false, &[3]), Err(Errno::EINVAL));
        assert_eq!(ask(16, 0, false, &[99, 1, 0, 0]), Err(Errno::EOPNOTSUPP));
        assert_eq!(ask(77, 0, false, &[3, 1, 0, 0]), Err(Errno::ENOENT));
        assert_eq!(ask(16, 0x300, false, &[3, 1, 0, 0]).unwrap().len(), 2);
    }

    #[test]
    fn statistics_name_the_task_and_are_roots() {
        let answer = ask(19, 0, true, &with(1, 1, &[1, 0, 0, 0])).unwrap();
        let outer = attributes(&requests(&answer[0])[0].body[4..]);
        assert_eq!(outer[0].0, 4);
        let inner = attributes(&outer[0].1);
        assert_eq!(inner[0], (1, vec![1, 0, 0, 0]));
        assert_eq!((inner[1].0, inner[1].1.len()), (3, STATS_LEN));
        assert_eq!((le32(&inner[1].1, 128), le32(&inner[1].1, 368)), (1, 1));
        assert!(le64(&inner[1].1, 344) > 0 || le64(&inner[1].1, 144) == 0);
        assert_eq!(ask(19, 0, false, &with(1, 1, &[1, 0, 0, 0])), Err(Errno::EPERM));
        assert_eq!(ask(19, 0, true, &with(1, 1, &[5, 0, 0, 0])), Err(Errno::ESRCH));
        assert_eq!(ask(19, 0, true, &with(1, 2, &[5, 0, 0, 0])), Err(Errno::ESRCH));
        assert_eq!(ask(19, 0, true, &with(1, 1, &[5, 0])), Err(Errno::ERANGE));
        assert_eq!(ask(19, 0, true, &with(1, 3, b"0-1\0")), Err(Errno::EINVAL));
    }
}

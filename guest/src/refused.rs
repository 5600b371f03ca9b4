//! What programs asked for and this kernel refused although Linux would have done it: whole calls, flags, options, requests.
//!
//! Recorded at the place of the refusal, which alone knows that it is one: EINVAL for a wrong argument is not. `coppice run --summary`
//! prints the list, so that a user can report what is missing. Bounded: the guest chooses what it asks for, not how much the host keeps.

use crate::errno::Errno;
use crate::fork::{ForkArgs, Reset};
use crate::kernel::Kernel;
use crate::task::Tid;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::BTreeMap;

mod known;

pub use known::{family_name, ioctl_name, option_name, prctl_name};

/// Different refusals that are kept; later ones are counted together.
const MOST: usize = 256;

/// One refusal.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Refusal {
    /// Number of the system call.
    pub call: u64,
    /// What the values are, such as `flags`; nothing where the call as a whole is refused.
    pub what: Cow<'static, str>,
    /// What was asked for.
    pub values: Vec<u64>,
    /// What the program was told.
    pub errno: Errno,
    /// Name of the thread, as in `/proc/PID/comm`.
    pub program: String,
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let call = crate::syscall::names::name(self.call);
        f.write_str(&call)?;
        if !self.what.is_empty() {
            let name = known::value_name(&call, &self.values);
            let values: Vec<String> = self
                .values
                .iter()
                .map(|v| if *v < 4096 { v.to_string() } else { format!("{v:#x}") })
                .collect();
            write!(f, " {} {}", self.what, values.join(", "))?;
            if let Some(name) = name {
                write!(f, " ({name})")?;
            }
        }
        write!(f, ": {}", self.errno)
    }
}

/// The refusals of a sandbox.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// How often each was met.
    pub list: BTreeMap<Refusal, u64>,
    /// How many were met when the list was full.
    pub more: u64,
}

impl Refused {
    fn record(&mut self, refusal: Refusal) {
        if let Some(count) = self.list.get_mut(&refusal) {
            *count = count.saturating_add(1);
        } else if self.list.len() < MOST {
            self.list.insert(refusal, 1);
        } else {
            self.more = self.more.saturating_add(1);
        }
    }
}

impl Reset for Refused {
    fn reset(&mut self, _args: &ForkArgs) {
        *self = Refused::default();
    }
}

impl Kernel {
    /// Records that the task's present call is refused although Linux would do it, and gives the error back.
    pub fn refuse(&mut self, tid: Tid, what: &'static str, values: &[u64], errno: Errno) -> Errno {
        let Some(task) = self.task(tid) else { return errno };
        let call = task.syscall.as_ref().map_or(u64::MAX, |c| c.number);
        let name = task.name.split(|b| *b == 0).next().unwrap_or_default();
        let program = String::from_utf8_lossy(name).into_owned();
        self.refused.record(Refusal { call, what: what.into(), values: values.to_vec(), errno, program });
        errno
    }
}

impl crate::syscall::Context<'_> {
    /// [`Kernel::refuse`] for the caller.
    pub fn refuse(&mut self, what: &'static str, values: &[u64], errno: Errno) -> Errno {
        self.k.refuse(self.tid, what, values, errno)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(value: u64) -> Refusal {
        let (what, errno) = ("option".into(), Errno::EINVAL);
        Refusal { call: 157, what, values: vec![value], errno, program: "p".into() }
    }

    #[test]
    fn the_list_is_bounded() {
        let mut refused = Refused::default();
        for value in 0..10_000 {
            refused.record(refusal(value));
        }
        refused.record(refusal(0));
        assert_eq!((refused.list.len(), refused.more), (MOST, 10_000 - 256));
        assert_eq!(refused.list.get(&refusal(0)), Some(&2));
    }

    #[test]
    fn a_refusal_says_what_was_asked_for_and_what_it_is_called() {
        assert_eq!(refusal(47).to_string(), "prctl option 47 (PR_CAP_AMBIENT): EINVAL");
        let call = Refusal {
            what: "".into(),
            values: Vec::new(),
            errno: Errno::ENOSYS,
            call: 425,
            program: String::new(),
        };
        assert_eq!(call.to_string(), "io_uring_setup: ENOSYS");
        let socket = Refusal {
            what: "family, type, protocol".into(),
            values: vec![16, 3, 15],
            errno: Errno::EAFNOSUPPORT,
            call: 41,
            program: String::new(),
        };
        assert_eq!(socket.to_string(), "socket family, type, protocol 16, 3, 15 (AF_NETLINK): EAFNOSUPPORT");
    }
}

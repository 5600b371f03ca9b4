//! The thread that a node's sandbox processes are children of.
//!
//! A sandbox dies with the thread that its process is a child of (PR_SET_PDEATHSIG, prctl(2)), and a fork's child has its seed's parent
//! (CLONE_PARENT). So the OS seeds are started by a thread that lives exactly as long as the node. It is also the one that can tell which
//! children nobody knows of: a seed may die after a fork and before it has told of it.

use super::process::Known;
use crate::channel::Channel;
use crate::handle::{self, Child, HandleError};
use rustix::process::{Pid, PidfdFlags};
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// How often orphans are looked for while there may be some.
const LOOK: Duration = Duration::from_millis(50);
/// Time for ending what is left when the node goes.
const LAST: Duration = Duration::from_secs(2);

enum Order {
    Boot {
        exe: PathBuf,
        env: Vec<(String, String)>,
        answer: oneshot::Sender<Result<(Child, Channel), HandleError>>,
    },
    Sweep,
    Answer(oneshot::Sender<()>),
}

/// A handle of the thread, which ends with the last one.
#[derive(Clone, Debug)]
pub struct Planter(mpsc::Sender<Order>);

impl Planter {
    /// Starts the thread. A child that is still unknown after `grace` is nobody's.
    pub(crate) fn start(known: Known, grace: Duration) -> std::io::Result<Planter> {
        let (sender, orders) = mpsc::channel();
        std::thread::Builder::new().name("planter".into()).spawn(move || live(&orders, &known, grace))?;
        Ok(Planter(sender))
    }

    /// Starts the process of an OS seed, which will say when it is ready.
    pub(crate) async fn boot(
        &self,
        exe: PathBuf,
        env: Vec<(String, String)>,
    ) -> Result<(Child, Channel), HandleError> {
        let (answer, booted) = oneshot::channel();
        let gone = || HandleError::Spawn(std::io::Error::other("the thread that starts sandboxes has ended"));
        self.0.send(Order::Boot { exe, env, answer }).map_err(|_| gone())?;
        booted.await.map_err(|_| gone())?
    }

    /// Whether the thread does what it is told. Waits for what it does now.
    pub(crate) async fn answers(&self) -> bool {
        let (answer, answered) = oneshot::channel();
        self.0.send(Order::Answer(answer)).is_ok() && answered.await.is_ok()
    }

    /// Ends and reaps children that nobody knows of, by and by.
    pub(crate) fn sweep(&self) {
        // A thread that has ended has no children.
        let _ = self.0.send(Order::Sweep);
    }
}

fn live(orders: &mpsc::Receiver<Order>, known: &Known, grace: Duration) {
    let mut orphans = Orphans::default();
    let mut looks = false;
    loop {
        let order = if looks {
            orders.recv_timeout(LOOK)
        } else {
            orders.recv().map_err(|_| RecvTimeoutError::Disconnected)
        };
        match order {
            Ok(Order::Boot { exe, env, answer }) => {
                // Registered before it is handed over, so that it is at no time an orphan.
                let booted = handle::Seed::spawn(&exe, &env).inspect(|(child, _)| known.add(child.pid));
                if let Err(Ok((child, _))) = answer.send(booted) {
                    known.remove(child.pid);
                }
            }
            Ok(Order::Answer(answer)) => _ = answer.send(()),
            Ok(Order::Sweep) | Err(RecvTimeoutError::Timeout) => looks = orphans.end(known, grace),
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    // The node is gone. What it knew of is ended by who held it.
    let started = Instant::now();
    while orphans.end(known, Duration::ZERO) && started.elapsed() < LAST {
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Children of the calling thread that are not known, since when.
#[derive(Default)]
struct Orphans(HashMap<i32, (Child, Instant)>);

impl Orphans {
    /// Ends those of a certain age; whether there are some left.
    fn end(&mut self, known: &Known, grace: Duration) -> bool {
        let children = children();
        self.0.retain(|pid, (child, since)| {
            if !children.contains(pid) || known.has(*pid) {
                child.forget();
                return false;
            }
            let old = since.elapsed() >= grace;
            if old {
                child.kill();
            }
            !(old && child.try_reap())
        });
        for pid in children.into_iter().filter(|pid| !known.has(*pid)) {
            let open = || rustix::process::pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok();
            if let (false, Some(pidfd)) = (self.0.contains_key(&pid), open()) {
                self.0.insert(pid, (Child::new(pid, pidfd), Instant::now()));
            }
        }
        !self.0.is_empty()
    }
}

/// Children of the calling thread, not those of others in this process (proc_pid_children(5)). Empty where the kernel does not tell:
/// orphans then end by themselves when their work is done.
fn children() -> Vec<i32> {
    let text = std::fs::read_to_string("/proc/thread-self/children").unwrap_or_default();
    text.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    /// In a thread of its own, so that other tests' children are none of ours.
    fn alone(test: impl FnOnce() + Send) {
        std::thread::scope(|scope| scope.spawn(test).join()).unwrap();
    }

    #[test]
    fn only_unknown_children_of_this_thread_are_ended() {
        let mut elsewhere = Command::new("sleep").arg("60").spawn().unwrap();
        alone(|| {
            let mut known_child = Command::new("sleep").arg("60").spawn().unwrap();
            let mut orphan = handle::sleeper();
            orphan.forget();
            let known = Known::default();
            known.add(i32::try_from(known_child.id()).unwrap());
            let mut orphans = Orphans::default();
            assert!(orphans.end(&known, Duration::from_secs(60)));
            assert!(orphans.end(&known, Duration::from_secs(60)), "too young to be ended");
            assert_eq!(orphans.0.keys().copied().collect::<Vec<_>>(), [orphan.pid]);
            while orphans.end(&known, Duration::ZERO) {
                std::thread::sleep(Duration::from_millis(1));
            }
            assert_eq!(children().len(), 1);
            assert!(known_child.try_wait().unwrap().is_none());
            known_child.kill().unwrap();
            known_child.wait().unwrap();
        });
        assert!(elsewhere.try_wait().unwrap().is_none());
        elsewhere.kill().unwrap();
        elsewhere.wait().unwrap();
    }

    #[tokio::test]
    async fn a_thread_that_hangs_or_has_ended_does_not_answer() {
        let planter = Planter::start(Known::default(), Duration::ZERO).unwrap();
        assert!(planter.answers().await);
        let (sender, orders) = mpsc::channel();
        let hung = Planter(sender);
        assert!(tokio::time::timeout(Duration::from_millis(50), hung.answers()).await.is_err());
        drop(orders);
        assert!(!hung.answers().await);
    }

    #[test]
    fn one_that_becomes_known_is_left_alone() {
        alone(|| {
            let mut child = Command::new("sleep").arg("60").spawn().unwrap();
            let (known, mut orphans) = (Known::default(), Orphans::default());
            assert!(orphans.end(&known, Duration::from_secs(60)));
            known.add(i32::try_from(child.id()).unwrap());
            assert!(!orphans.end(&known, Duration::ZERO));
            assert!(child.try_wait().unwrap().is_none());
            child.kill().unwrap();
            child.wait().unwrap();
        });
    }
}

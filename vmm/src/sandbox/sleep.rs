//! Sleeping on host descriptors while no guest code runs.

use crate::error::Error;
use guest::platform::Ns;
use rustix::event::{PollFd, PollFlags};
use std::os::fd::{AsRawFd, BorrowedFd};

/// What [`wait`] found.
#[derive(Debug, Default)]
pub(super) struct Ready {
    /// Descriptors of the guest's that are ready.
    pub fds: Vec<i32>,
    /// The control descriptor is readable.
    pub control: bool,
}

/// ppoll(2) on the guest's host descriptors, the control descriptor and the wake-up descriptor. A signal ends it like a time-out.
pub(super) fn wait(
    poll: &[(i32, bool, bool)],
    control: Option<BorrowedFd<'_>>,
    wake: Option<BorrowedFd<'_>>,
    timeout: Option<Ns>,
) -> Result<Ready, Error> {
    let mut fds = Vec::with_capacity(poll.len() + 2);
    for (fd, input, output) in poll {
        let mut flags = PollFlags::empty();
        flags.set(PollFlags::IN, *input);
        flags.set(PollFlags::OUT, *output);
        // SAFETY: the guest kernel keeps the descriptors that it names open while its tasks sleep on them; poll(2) of a closed one only
        // reports that.
        let fd = unsafe { BorrowedFd::borrow_raw(*fd) };
        fds.push(PollFd::from_borrowed_fd(fd, flags));
    }
    let mut extra = |fd: Option<BorrowedFd<'_>>| {
        fd.map(|fd| {
            // SAFETY: outlives this call, as the borrow that was given does.
            let fd = unsafe { BorrowedFd::borrow_raw(fd.as_raw_fd()) };
            fds.push(PollFd::from_borrowed_fd(fd, PollFlags::IN));
            fds.len() - 1
        })
    };
    let control = extra(control);
    let wake = extra(wake);
    let timeout = timeout.map(|ns| rustix::event::Timespec {
        tv_sec: (ns / 1_000_000_000).cast_signed(),
        tv_nsec: (ns % 1_000_000_000).cast_signed(),
    });
    match rustix::event::poll(&mut fds, timeout.as_ref()) {
        Ok(_) => {}
        Err(rustix::io::Errno::INTR) => return Ok(Ready::default()),
        Err(e) => return Err(Error::Host { what: "wait for events", source: e.into() }),
    }
    let is_ready = |i: Option<usize>| i.and_then(|i| fds.get(i)).is_some_and(|p| !p.revents().is_empty());
    if is_ready(wake)
        && let Some(p) = wake.and_then(|i| fds.get(i))
    {
        let _ = rustix::io::read(p, &mut [0; 8]);
    }
    let ready = poll.iter().zip(&fds).filter(|(_, p)| !p.revents().is_empty()).map(|((fd, ..), _)| *fd);
    Ok(Ready { fds: ready.collect(), control: is_ready(control) })
}

//! Counters: KVM's own (`KVM_GET_STATS_FD`) and the time of each phase.
//!
//! `pf_taken` and `exits` measure the cost of a fork independently of how fast this machine happens to be.

use crate::error::Error;
use kvm_bindings::kvm_stats_header;
use kvm_ioctls::{VcpuFd, VmFd};
use rustix::io::pread;
use serde::Serialize;
use std::collections::BTreeMap;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

const KVM_GET_STATS_FD: libc::c_ulong = 0xaece;

/// Time spent in the last run of each phase, ns of `CLOCK_MONOTONIC`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Timings {
    /// clone3 of the sandbox process, as its parent saw it.
    pub clone: u64,
    /// Making the virtual machine.
    pub vm_create: u64,
    /// Registering its memory slots.
    pub slots: u64,
    /// Making and setting up the first vCPU.
    pub vcpu: u64,
    /// Prefilling the working set.
    pub prefill: u64,
    /// The last [`crate::sandbox::Sandbox::run`].
    pub run: u64,
}

/// KVM's counters by name; only those that hold one value.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Stats {
    /// Of the virtual machine.
    pub vm: BTreeMap<String, u64>,
    /// Of its first vCPU.
    pub vcpu: BTreeMap<String, u64>,
}

impl Stats {
    /// Reads both.
    pub(crate) fn read(vm: &VmFd, vcpu: &VcpuFd) -> Result<Self, Error> {
        Ok(Stats { vm: read(vm.as_raw_fd())?, vcpu: read(vcpu.as_raw_fd())? })
    }

    /// VM exits of the first vCPU (0 where KVM does not tell).
    pub fn exits(&self) -> u64 {
        self.vcpu.get("exits").copied().unwrap_or(0)
    }

    /// Guest page faults that KVM took on the first vCPU.
    pub fn pf_taken(&self) -> u64 {
        self.vcpu.get("pf_taken").copied().unwrap_or(0)
    }

    /// Instructions that KVM emulated on the first vCPU.
    pub fn insn_emulation(&self) -> u64 {
        self.vcpu.get("insn_emulation").copied().unwrap_or(0)
    }
}

/// Page faults of this process that needed no input from a disk, since it was forked (`ru_minflt` of getrusage(2)).
pub fn minor_faults() -> u64 {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: the call fills the structure, which is valid as zeroes too; it cannot fail with these arguments.
    let usage = unsafe {
        libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr());
        usage.assume_init()
    };
    u64::try_from(usage.ru_minflt).unwrap_or(0)
}

/// KVM API, 4.133: a header, descriptors of a fixed size plus a name, and the data.
fn read(fd: i32) -> Result<BTreeMap<String, u64>, Error> {
    // SAFETY: the call takes no argument and returns a new descriptor or -1.
    let stats = unsafe { libc::ioctl(fd, KVM_GET_STATS_FD) };
    if stats < 0 {
        return Err(Error::last("open KVM's counters"));
    }
    // SAFETY: a descriptor that was just made and is nobody else's.
    let stats = unsafe { OwnedFd::from_raw_fd(stats) };
    let failed = |e: rustix::io::Errno| Error::Host { what: "read KVM's counters", source: e.into() };
    let mut head = [0u8; size_of::<kvm_stats_header>()];
    pread(&stats, &mut head, 0).map_err(failed)?;
    let name_size = word(&head, 4) as usize;
    let (count, descriptors, data) = (word(&head, 8) as usize, word(&head, 16), word(&head, 20));
    let size = 16 + name_size;
    let mut table = vec![0u8; (size * count).min(1 << 20)];
    pread(&stats, &mut table, u64::from(descriptors)).map_err(failed)?;
    let mut values = BTreeMap::new();
    for d in table.chunks_exact(size) {
        let elements = word(d, 4) >> 16;
        if elements != 1 {
            continue;
        }
        let mut value = [0u8; 8];
        pread(&stats, &mut value, u64::from(data) + u64::from(word(d, 8))).map_err(failed)?;
        let name = d[16..].split(|b| *b == 0).next().unwrap_or_default();
        values.insert(String::from_utf8_lossy(name).into_owned(), u64::from_ne_bytes(value));
    }
    Ok(values)
}

fn word(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).map_or(0, |b| u32::from_ne_bytes(b.try_into().unwrap_or_default()))
}

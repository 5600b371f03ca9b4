//! What this host's KVM and processor offer, asked once when a machine is made.
//!
//! Owns the `/dev/kvm` descriptor, which (unlike a virtual machine's) stays usable in the child of a fork, so that a jailed
//! child need not open it again.

use crate::error::Error;
use kvm_bindings::{CpuId, KVM_MAX_CPUID_ENTRIES};
use kvm_ioctls::Kvm;
use std::arch::x86_64::{__cpuid, __cpuid_count, _rdtsc, CpuidResult};

const CAP_XSAVE2: u64 = 208;
const CAP_PRE_FAULT_MEMORY: u64 = 236;
const CAP_STATS_FD: u64 = 203;
/// Capabilities without which nothing runs: number, bits that the answer must have, name.
const NEEDED: [(u64, i32, &str); 6] = [
    (3, 0, "user memory regions (KVM_CAP_USER_MEMORY)"),
    (16, 0, "MMU notifiers (KVM_CAP_SYNC_MMU)"),
    (55, 0, "XSAVE state (KVM_CAP_XSAVE)"),
    (56, 0, "extended control registers (KVM_CAP_XCRS)"),
    // General and system registers through the shared page.
    (74, 3, "shared registers (KVM_CAP_SYNC_REGS)"),
    (136, 0, "immediate exits (KVM_CAP_IMMEDIATE_EXIT)"),
];

/// See the module.
#[derive(Debug)]
pub struct Host {
    pub(crate) kvm: Kvm,
    pub(crate) cpuid: CpuId,
    /// XCR0 that guest code sees: all that KVM offers.
    pub xcr0: u64,
    /// Bytes of an XSAVE image of these components in standard format.
    pub xstate_len: usize,
    /// Bytes that KVM's own XSAVE calls transfer.
    pub(crate) kvm_xsave_len: usize,
    /// KVM_GET_XSAVE2 is there.
    pub(crate) xsave2: bool,
    /// Protection keys are offered.
    pub(crate) pku: bool,
    /// Offset of PKRU in the XSAVE image.
    pub(crate) pkru_at: usize,
    /// KVM_PRE_FAULT_MEMORY is there.
    pub pre_fault: bool,
    /// KVM_GET_STATS_FD is there.
    pub stats: bool,
    /// The module parameters say that EPT or NPT is in use. False means: assume that KVM shadows guest page tables.
    pub nested_paging: bool,
    /// The time-stamp counter runs at one rate.
    pub(crate) invariant_tsc: bool,
    /// `rdtscp` is offered.
    pub(crate) rdtscp: bool,
    /// vCPUs that KVM allows in one machine.
    pub max_vcpus: usize,
}

impl Host {
    /// Opens `/dev/kvm` and checks that everything needed is there.
    pub fn open() -> Result<Self, Error> {
        let kvm = Kvm::new().map_err(|e| cannot_open(e.errno()))?;
        check_kvm(kvm.get_api_version(), |cap| raw_cap(&kvm, cap))?;
        let offered = kvm
            .get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)
            .map_err(Error::kvm("tell which processor features guests may use"))?;
        check_processor(&offered, |function| __cpuid_count(function, 0))?;
        let cpuid = crate::cpuid::for_guest(&offered);
        let leaf = |function: u32, index: u32| {
            cpuid.as_slice().iter().find(|e| e.function == function && e.index == index).copied()
        };
        let extended = leaf(7, 0).unwrap_or_default();
        let amd = leaf(0x8000_0001, 0).unwrap_or_default();
        let xsave = leaf(0xd, 0).unwrap_or_default();
        let xcr0 = u64::from(xsave.eax) | u64::from(xsave.edx) << 32 | 3;
        // The leaf's size fields follow the XCR0 of whoever asks; so the size is computed from the components.
        let mut xstate_len = 576;
        for component in (2..63).filter(|c| xcr0 & 1 << c != 0) {
            let part = __cpuid_count(0xd, component);
            xstate_len = xstate_len.max(part.eax as usize + part.ebx as usize);
        }
        let xsave2 = raw_cap(&kvm, CAP_XSAVE2);
        let kvm_xsave_len = usize::try_from(xsave2).unwrap_or(0).max(4096);
        if xstate_len > kvm_xsave_len {
            return Err(Error::MissingCapability("large XSAVE state (KVM_CAP_XSAVE2)"));
        }
        let pku = bit(extended.ecx, 3) && xcr0 & 1 << 9 != 0;
        Ok(Host {
            xcr0,
            xstate_len,
            kvm_xsave_len,
            xsave2: xsave2 > 0,
            pku,
            pkru_at: if pku { __cpuid_count(0xd, 9).ebx as usize } else { 0 },
            pre_fault: raw_cap(&kvm, CAP_PRE_FAULT_MEMORY) > 0,
            stats: raw_cap(&kvm, CAP_STATS_FD) > 0,
            nested_paging: nested_paging(),
            invariant_tsc: invariant_tsc(),
            rdtscp: bit(amd.edx, 27),
            max_vcpus: kvm.get_max_vcpus(),
            cpuid,
            kvm,
        })
    }
}

/// Why `/dev/kvm` cannot be opened. The node may be there although no module is behind it.
fn cannot_open(errno: i32) -> Error {
    match errno {
        libc::ENOENT | libc::ENODEV | libc::ENXIO => Error::NoKvm,
        libc::EACCES | libc::EPERM => Error::KvmPermission,
        _ => Error::Host { what: "open /dev/kvm", source: std::io::Error::from_raw_os_error(errno) },
    }
}

/// Whether KVM has what the machine needs; `cap` is KVM_CHECK_EXTENSION.
fn check_kvm(version: i32, cap: impl Fn(u64) -> i32) -> Result<(), Error> {
    if version != 12 {
        return Err(Error::KvmVersion(version));
    }
    for (number, mask, name) in NEEDED {
        let there = cap(number);
        if there <= 0 || there & mask != mask {
            return Err(Error::MissingCapability(name));
        }
    }
    Ok(())
}

/// Whether the processor has what the machine needs: of what KVM offers, and (`native`) of the processor itself.
fn check_processor(offered: &CpuId, native: impl Fn(u32) -> CpuidResult) -> Result<(), Error> {
    let leaf = offered.as_slice().iter().find(|e| e.function == 0x8000_0001).copied().unwrap_or_default();
    for (there, name) in [
        (bit(leaf.edx, 29), "64-bit mode"),
        (bit(leaf.edx, 11), "the syscall instruction"),
        (bit(leaf.edx, 20), "no-execute pages"),
        // Asked of the processor itself: KVM without hardware virtualisation leaves them out of its list, and they work.
        (bit(native(1).ecx, 27), "XSAVE"),
        (bit(native(7).ebx, 0), "FSGSBASE"),
    ] {
        if !there {
            return Err(Error::UnsupportedProcessor(name));
        }
    }
    Ok(())
}

fn bit(value: u32, n: u32) -> bool {
    value & 1 << n != 0
}

fn raw_cap(kvm: &Kvm, cap: u64) -> i32 {
    kvm.check_extension_raw(cap)
}

/// The host's time-stamp counter.
pub fn rdtsc() -> u64 {
    // SAFETY: every x86-64 processor has the instruction, and Linux lets user mode execute it.
    unsafe { _rdtsc() }
}

/// The counter runs at one rate in every power state. A virtual host may not show the bit, but then its kernel vouches for the
/// counter by using it as its clock.
fn invariant_tsc() -> bool {
    let known = __cpuid(0x8000_0000).eax >= 0x8000_0007;
    if known && __cpuid(0x8000_0007).edx & 1 << 8 != 0 {
        return true;
    }
    let clock = "/sys/devices/system/clocksource/clocksource0/current_clocksource";
    std::fs::read_to_string(clock).is_ok_and(|s| s.trim() == "tsc")
}

/// Whether KVM is known to use two-dimensional paging.
fn nested_paging() -> bool {
    ["/sys/module/kvm_intel/parameters/ept", "/sys/module/kvm_amd/parameters/npt"]
        .iter()
        .any(|path| std::fs::read_to_string(path).is_ok_and(|s| matches!(s.trim(), "Y" | "1")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use kvm_bindings::kvm_cpuid_entry2;

    #[test]
    fn an_open_that_fails_names_its_cure() {
        assert!(matches!(cannot_open(libc::ENOENT), Error::NoKvm));
        assert!(matches!(cannot_open(libc::ENODEV), Error::NoKvm));
        assert!(matches!(cannot_open(libc::EACCES), Error::KvmPermission));
        assert!(matches!(cannot_open(libc::EMFILE), Error::Host { .. }));
        assert!(cannot_open(libc::ENOENT).to_string().contains("load kvm_intel or kvm_amd"));
        assert!(cannot_open(libc::EACCES).to_string().contains("group kvm"));
    }

    #[test]
    fn each_missing_capability_is_named() {
        check_kvm(12, |_| 7).unwrap();
        assert!(matches!(check_kvm(11, |_| 7), Err(Error::KvmVersion(11))));
        for (missing, _, name) in NEEDED {
            let e = check_kvm(12, |cap| if cap == missing { 0 } else { 7 }).unwrap_err();
            assert!(e.to_string().contains(name), "{e}");
        }
        let partly = check_kvm(12, |cap| if cap == 74 { 1 } else { 7 });
        assert!(matches!(partly, Err(Error::MissingCapability(_))), "general registers alone are too little");
    }

    #[test]
    fn each_missing_processor_feature_is_named() {
        let all = CpuidResult { eax: 0, ebx: 1, ecx: 1 << 27, edx: 0 };
        let offer = |edx| {
            let leaf = kvm_cpuid_entry2 { function: 0x8000_0001, edx, ..Default::default() };
            CpuId::from_entries(&[leaf]).unwrap()
        };
        let good = 1 << 29 | 1 << 11 | 1 << 20;
        check_processor(&offer(good), |_| all).unwrap();
        for feature in [29, 11, 20] {
            let e = check_processor(&offer(good & !(1 << feature)), |_| all).unwrap_err();
            assert!(matches!(e, Error::UnsupportedProcessor(_)), "{e}");
        }
        let none = CpuidResult { eax: 0, ebx: 0, ecx: 0, edx: 0 };
        let e = check_processor(&offer(good), |f| if f == 7 { none } else { all }).unwrap_err();
        assert!(e.to_string().contains("FSGSBASE"), "{e}");
        let e = check_processor(&offer(good), |f| if f == 1 { none } else { all }).unwrap_err();
        assert!(e.to_string().contains("XSAVE"), "{e}");
    }
}

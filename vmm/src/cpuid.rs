//! Which processor features guest code is shown.
//!
//! Starts from what KVM says that it can give (KVM_GET_SUPPORTED_CPUID) and takes away what only an operating system in the guest could use
//! and what this machine does not back: there is no local APIC, no performance counter, no nested virtualisation and none of KVM's own
//! paravirtual interfaces.

use kvm_bindings::{CpuId, kvm_cpuid_entry2};

/// AMX tile configuration and data in XCR0: a process needs the host's permission for them (arch_prctl(2)), and then every fork pays
/// for 8 KiB more of state.
const AMX_XCR0: u64 = 3 << 17;

/// Features of leaf 1, ecx: DTES64, MONITOR, DS-CPL, VMX, SMX, EIST, TM2, PDCM, x2APIC, TSC deadline.
const HIDDEN_1_ECX: u32 = 0x7f << 2 | 1 << 15 | 1 << 21 | 1 << 24;
/// Leaf 7.0, ecx: WAITPKG, SGX launch control, KeyLocker.
const HIDDEN_7_ECX: u32 = 1 << 5 | 1 << 23 | 1 << 30;
/// Leaf 7.0, ebx: SGX.
const HIDDEN_7_EBX: u32 = 1 << 2;
/// Leaf 7.0, edx: user interrupts, AMX-BF16, AMX-TILE, AMX-INT8.
const HIDDEN_7_EDX: u32 = 1 << 5 | 1 << 22 | 1 << 24 | 1 << 25;
/// Leaf 7.1, eax: AMX-FP16.
const HIDDEN_7_1_EAX: u32 = 1 << 21;
/// Leaf 0x8000_0001, ecx: SVM, extended APIC space, IBS, SKINIT, MONITORX.
const HIDDEN_EXT_ECX: u32 = 1 << 2 | 1 << 3 | 1 << 10 | 1 << 12 | 1 << 29;

/// The features that guest code sees, of those that KVM offers.
pub fn for_guest(offered: &CpuId) -> CpuId {
    let mut shown = offered.clone();
    shown.retain(|e| !is_hidden(e));
    for e in shown.as_mut_slice() {
        match (e.function, e.index) {
            (1, _) => e.ecx &= !HIDDEN_1_ECX,
            // Monitor lines, performance counters.
            (5 | 0xa, _) => (e.eax, e.ebx, e.ecx, e.edx) = (0, 0, 0, 0),
            (7, 0) => {
                e.ebx &= !HIDDEN_7_EBX;
                e.ecx &= !HIDDEN_7_ECX;
                e.edx &= !HIDDEN_7_EDX;
            }
            (7, 1) => e.eax &= !HIDDEN_7_1_EAX,
            (0xd, 0) => e.eax &= !(AMX_XCR0 as u32),
            (0x8000_0001, _) => e.ecx &= !HIDDEN_EXT_ECX,
            _ => {}
        }
    }
    shown
}

/// Leaves that are left out: SGX, processor trace, AMX tiles and their state components, KVM's own leaves, SVM.
fn is_hidden(e: &kvm_cpuid_entry2) -> bool {
    match e.function {
        0x12 | 0x14 | 0x1d | 0x1e | 0x8000_000a => true,
        0xd => matches!(e.index, 17 | 18),
        f => (0x4000_0000..0x5000_0000).contains(&f),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(function: u32, index: u32) -> kvm_cpuid_entry2 {
        kvm_cpuid_entry2 { function, index, eax: !0, ebx: !0, ecx: !0, edx: !0, ..Default::default() }
    }

    #[test]
    fn features_that_need_a_guest_operating_system_or_are_not_backed_are_hidden() {
        let offered = [
            entry(1, 0),
            entry(7, 0),
            entry(0xa, 0),
            entry(0xd, 0),
            entry(0xd, 2),
            entry(0xd, 17),
            entry(0x4000_0000, 0),
            entry(0x4000_0001, 0),
            entry(0x8000_0001, 0),
        ];
        let shown = for_guest(&CpuId::from_entries(&offered).unwrap());
        let leaf = |f, i| shown.as_slice().iter().find(|e| e.function == f && e.index == i).copied();
        let one = leaf(1, 0).unwrap();
        assert_eq!(one.ecx & (1 << 3 | 1 << 5 | 1 << 21 | 1 << 24), 0, "MONITOR, VMX, x2APIC, TSC deadline");
        assert_ne!(one.ecx & (1 << 26 | 1 << 27 | 1 << 28), 0, "XSAVE, OSXSAVE, AVX stay");
        assert_eq!(leaf(0xa, 0).unwrap().eax, 0, "no performance counters");
        assert_eq!(leaf(0xd, 0).unwrap().eax, !(3 << 17), "no tiles");
        assert!(leaf(0xd, 2).is_some() && leaf(0xd, 17).is_none());
        assert!(leaf(0x4000_0000, 0).is_none() && leaf(0x4000_0001, 0).is_none());
        assert_eq!(leaf(0x8000_0001, 0).unwrap().ecx & 4, 0, "SVM");
        assert_ne!(leaf(0x8000_0001, 0).unwrap().edx & 1 << 29, 0, "64-bit mode stays");
    }
}

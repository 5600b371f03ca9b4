//! The extended (FPU, SSE, AVX, protection-key) state that a vCPU holds, as XSAVE images in standard format.

use super::KvmVcpu;
use guest::platform::{BadXstate, Vcpu};
use std::os::fd::AsRawFd;

const KVM_GET_XSAVE: libc::c_ulong = 0x9000_aea4;
const KVM_GET_XSAVE2: libc::c_ulong = 0x9000_aecf;
const KVM_SET_XSAVE: libc::c_ulong = 0x5000_aea5;
pub(super) const XSTATE_BV: usize = 512;
pub(super) const MXCSR: usize = 24;
const MXCSR_MASK: usize = 28;
const PKRU_BIT: u64 = 1 << 9;
/// Linux's initial protection-key rights: only key 0 may be used.
const INIT_PKRU: u32 = 0x5555_5554;

impl KvmVcpu {
    fn xsave(&self, request: libc::c_ulong, image: &mut [u32]) -> i32 {
        debug_assert!(image.len() * 4 >= self.machine.host().kvm_xsave_len);
        // SAFETY: KVM transfers as many bytes as KVM_CAP_XSAVE2 told (4096 where it is missing), and the buffer has them.
        unsafe { libc::ioctl(self.fd.as_raw_fd(), request, image.as_mut_ptr()) }
    }

    fn set_xsave(&self, image: &[u8]) -> i32 {
        let mut words = vec![0u32; self.machine.host().kvm_xsave_len.div_ceil(4)];
        for (to, from) in words.iter_mut().zip(image.chunks_exact(4)) {
            *to = u32::from_le_bytes([from[0], from[1], from[2], from[3]]);
        }
        self.xsave(KVM_SET_XSAVE, &mut words)
    }
}

impl Vcpu for KvmVcpu {
    fn index(&self) -> usize {
        self.index
    }

    fn save_xstate(&mut self) -> Vec<u8> {
        let host = self.machine.host();
        let mut words = vec![0u32; host.kvm_xsave_len.div_ceil(4)];
        let request = if host.xsave2 { KVM_GET_XSAVE2 } else { KVM_GET_XSAVE };
        self.xsave(request, &mut words);
        let mut image: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
        image.truncate(host.xstate_len);
        image
    }

    fn load_xstate(&mut self, image: &[u8]) -> Result<(), BadXstate> {
        let host = self.machine.host();
        if image.len() != host.xstate_len || !valid_xstate(image, host.xcr0) {
            return Err(BadXstate);
        }
        if self.set_xsave(image) == 0 { Ok(()) } else { Err(BadXstate) }
    }

    fn reset_xstate(&mut self) {
        let host = self.machine.host();
        let mut image = vec![0; host.xstate_len];
        image[0..2].copy_from_slice(&0x37fu16.to_le_bytes());
        image[MXCSR..MXCSR + 4].copy_from_slice(&0x1f80u32.to_le_bytes());
        if host.pku {
            image[XSTATE_BV..XSTATE_BV + 8].copy_from_slice(&PKRU_BIT.to_le_bytes());
            image[host.pkru_at..host.pkru_at + 4].copy_from_slice(&INIT_PKRU.to_le_bytes());
        }
        self.set_xsave(&image);
    }
}

/// Whether the processor would take this XSAVE image in standard format (Intel SDM volume 1, 13.8).
fn valid_xstate(image: &[u8], xcr0: u64) -> bool {
    let word =
        |at: usize| image.get(at..at + 8).map_or(0, |b| u64::from_le_bytes(b.try_into().unwrap_or_default()));
    let half =
        |at: usize| image.get(at..at + 4).map_or(0, |b| u32::from_le_bytes(b.try_into().unwrap_or_default()));
    let mask = match half(MXCSR_MASK) {
        0 => 0xffbf,
        m => m & 0xffff,
    };
    word(XSTATE_BV) & !xcr0 == 0
        && image.get(XSTATE_BV + 8..XSTATE_BV + 64).is_some_and(|rest| rest.iter().all(|b| *b == 0))
        && half(MXCSR) & !mask == 0
}

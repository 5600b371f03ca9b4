//! The time page and the vDSO: how user mode reads the clocks without an exit.
//!
//! Page and image are one kernel-owned extent, mapped read-only into every address space. The page is a line from the
//! time-stamp counter to the clocks; it is anchored anew about once a second, and never so that a clock steps back.

use super::TimePage;
use crate::errno::Errno;
use crate::kernel::Kernel;
use crate::mm::mmap::MapRequest;
use crate::mm::{Backing, Prot, Special};
use crate::num::{align_up, u64_of};
use crate::platform::{Ns, PAGE_SIZE, Va};

/// The page is anchored anew when it is older than this, ns.
const ANCHOR_AGE: Ns = 1_000_000_000;
/// A lead of the page over the host's clock that is slewed away within a second, ns; more is taken for a clock that was set.
const MAX_LEAD: Ns = 1_000_000;
/// `time = delta * mult >> SHIFT`: with it `mult` fits in 32 bits from 244 kHz up.
const SHIFT: u32 = 20;

/// The multiplier for a counter of `khz`, and its shift.
fn scale(khz: u64) -> Option<(u32, u32)> {
    // The largest shift whose multiplier fits, for the best resolution.
    (SHIFT..=32).rev().find_map(|shift| {
        let mult = (1_000_000_u64 << shift).checked_div(khz)?;
        u32::try_from(mult).ok().filter(|m| *m != 0).map(|m| (m, shift))
    })
}

/// A multiplier that makes up for a lead of `lead` ns within a second.
fn slowed(mult: u32, lead: Ns) -> u32 {
    let cut = u64::from(mult) * lead.min(MAX_LEAD) / ANCHOR_AGE;
    mult - u32::try_from(cut).unwrap_or(0)
}

impl TimePage {
    /// Nanoseconds that the line says have passed since the base, at a counter value.
    fn elapsed(&self, tsc: u64) -> Ns {
        let delta = u128::from(tsc.saturating_sub(self.tsc_base));
        u64::try_from((delta * u128::from(self.mult)) >> self.shift.min(63)).unwrap_or(u64::MAX)
    }

    fn bytes(&self) -> [u8; 48] {
        let mut out = [0; 48];
        let fields = [
            (u64::from(self.sequence), 4),
            (u64::from(self.mode), 4),
            (self.tsc_base, 8),
            (u64::from(self.mult), 4),
            (u64::from(self.shift), 4),
            (self.monotonic_base, 8),
            (self.realtime_base, 8),
            (u64::from(self.cpu_from_tsc_aux), 4),
            (u64::from(self.reserved), 4),
        ];
        let bytes = fields.iter().flat_map(|(x, n)| x.to_le_bytes().into_iter().take(*n));
        for (to, from) in out.iter_mut().zip(bytes) {
            *to = from;
        }
        out
    }
}

impl Kernel {
    /// Allocates the time page and the vDSO's pages and writes both.
    pub fn init_time(&mut self) -> Result<(), Errno> {
        let image = self.platform.vdso_image().to_vec();
        if image.is_empty() {
            return Ok(());
        }
        let len = align_up(u64_of(image.len()), PAGE_SIZE).ok_or(Errno::ENOMEM)?;
        let page = self.frames_alloc(PAGE_SIZE + len)?;
        self.platform.write(page + PAGE_SIZE, &image)?;
        self.time.page = page;
        self.reanchor_time();
        Ok(())
    }

    /// Anchors the time page at `now` again when it is old enough that drift could show.
    pub fn refresh_time(&mut self, now: Ns) {
        let current = &self.time.current;
        if current.mode == 1 && now.saturating_sub(current.monotonic_base) > ANCHOR_AGE {
            self.reanchor_time();
        }
    }

    /// CLOCK_MONOTONIC, ns; not behind what user mode may have read from the page.
    pub fn clock_monotonic(&self) -> Ns {
        let (now, line) = (self.platform.monotonic(), &self.time.current);
        if line.mode != 1 {
            return now;
        }
        now.max(line.monotonic_base.saturating_add(line.elapsed(self.platform.tsc())))
    }

    /// CLOCK_REALTIME, ns since the epoch.
    pub fn clock_realtime(&self) -> Ns {
        self.platform.realtime()
    }

    /// Anchors the time page at the present.
    pub(crate) fn reanchor_time(&mut self) {
        if self.time.page == 0 {
            return;
        }
        let old = self.time.current;
        let line = self.platform.tsc_khz().and_then(scale);
        let mut new = TimePage { sequence: old.sequence.wrapping_add(2) & !1, ..TimePage::default() };
        if let Some((mult, shift)) = line {
            let tsc = self.platform.tsc();
            (new.mode, new.mult, new.shift, new.tsc_base) = (1, mult, shift, tsc);
            new.monotonic_base = self.platform.monotonic();
            new.realtime_base = self.platform.realtime();
            // A counter below the old base is another machine's: there is no line to continue.
            if old.mode == 1 && tsc >= old.tsc_base {
                let said = old.monotonic_base.saturating_add(old.elapsed(tsc));
                if let Some(lead) = said.checked_sub(new.monotonic_base) {
                    // The line ran ahead: go on from where it is, and slower for a while (0.1 % at most).
                    new.monotonic_base = said;
                    new.mult = slowed(mult, lead);
                }
                // The wall clock may be set back by its owner, but drift must not do it.
                let said = old.realtime_base.saturating_add(old.elapsed(tsc));
                if said.saturating_sub(new.realtime_base) < MAX_LEAD {
                    new.realtime_base = new.realtime_base.max(said);
                }
            }
        }
        self.time.current = new;
        let page = self.time.page;
        // Readers on other vCPUs see an odd sequence, then the fields, then the even one. A page that cannot be written keeps its line.
        let odd = new.sequence.wrapping_sub(1);
        let bytes = new.bytes();
        let _ = self
            .platform
            .write(page, &odd.to_le_bytes())
            .and_then(|()| self.platform.write(page + 4, bytes.get(4..).unwrap_or_default()))
            .and_then(|()| self.platform.write(page, &new.sequence.to_le_bytes()));
    }

    /// Maps the time page and the vDSO into an address space; returns the image's address, 0 when there is none.
    pub(crate) fn map_vdso(&mut self, mm: u64) -> Result<Va, Errno> {
        let image = align_up(u64_of(self.platform.vdso_image().len()), PAGE_SIZE).ok_or(Errno::ENOMEM)?;
        let page = self.time.page;
        if page == 0 || image == 0 {
            return Ok(0);
        }
        let m = self.mms.get(mm).ok_or(Errno::EFAULT)?;
        let base = m.find_gap(PAGE_SIZE + image, crate::mm::vma::MMAP_MIN_ADDR, m.mmap_base);
        let base = base.ok_or(Errno::ENOMEM)?;
        let parts = [
            (base, page, PAGE_SIZE, Prot::READ, Special::Vvar),
            (base + PAGE_SIZE, page + PAGE_SIZE, image, Prot::READ | Prot::EXEC, Special::Vdso),
        ];
        for (va, gpa, len, prot, name) in parts {
            let mut request = MapRequest::anon(va, len, prot, true);
            request.backing = Backing::Special(name);
            request.may = Prot::READ | Prot::EXEC;
            self.mm_map(mm, request)?;
            let mut space = self.space(mm)?;
            space.frames.add_ref(gpa, len);
            space.back(va, len, gpa, false, prot)?;
        }
        Ok(base + PAGE_SIZE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::Limits;
    use crate::platform::fake::FakePlatform;
    use crate::platform::{FIRST_EXTENT, Platform};
    use std::sync::Arc;

    fn rig() -> (Kernel, Arc<FakePlatform>) {
        let p = FakePlatform::new(FIRST_EXTENT + (64 << 20)).with_vdso(vec![0x5a; 8192]);
        let p = Arc::new(p);
        (Kernel::new(p.clone(), Limits::default()).unwrap(), p)
    }

    #[test]
    fn multipliers_fit_and_are_right() {
        for khz in [250, 1_000, 1_000_000, 2_100_000, 3_700_000, 5_000_000] {
            let (mult, shift) = scale(khz).unwrap();
            let page = TimePage { mult, shift, ..TimePage::default() };
            let second = page.elapsed(khz * 1000);
            assert!(second.abs_diff(1_000_000_000) < 2000, "{khz} kHz: {second}");
        }
        assert_eq!(scale(0), None);
    }

    #[test]
    fn the_page_is_written_with_an_even_sequence_and_never_steps_back() {
        let (mut k, p) = rig();
        let first = k.time.current;
        let mut bytes = [0; 48];
        p.read(k.time.page, &mut bytes).unwrap();
        assert_eq!(bytes, first.bytes());
        assert_eq!((bytes[0], bytes[4]), (2, 1));
        p.advance(5_000_000_000);
        let now = p.monotonic();
        k.refresh_time(now);
        let second = k.time.current;
        assert_eq!(second.sequence, first.sequence + 2);
        let said = first.monotonic_base + first.elapsed(second.tsc_base);
        assert!(second.monotonic_base >= said);
        // A line that runs ahead is continued and slowed, not set back.
        k.time.current.monotonic_base += 500_000;
        let ahead = k.time.current;
        k.reanchor_time();
        let third = k.time.current;
        assert!(third.monotonic_base >= ahead.monotonic_base);
        assert!(third.mult < ahead.mult);
        k.refresh_time(now);
        assert_eq!(k.time.current, third, "a fresh page is left alone");
    }

    #[test]
    fn the_vdso_lies_right_above_its_page_in_each_address_space() {
        let (mut k, p) = rig();
        let free = k.frames.free_bytes();
        let (a, b) = (k.mm_new().unwrap(), k.mm_new().unwrap());
        for mm in [a, b] {
            let vdso = k.map_vdso(mm).unwrap();
            let root = k.mms.get(mm).unwrap().root;
            let (gpa, access) = p.translate(root, vdso - PAGE_SIZE).unwrap();
            assert_eq!((gpa, access.write, access.exec), (k.time.page, false, false));
            let (gpa, access) = p.translate(root, vdso).unwrap();
            assert_eq!((gpa, access.write, access.exec), (k.time.page + PAGE_SIZE, false, true));
            assert_eq!(k.mprotect(mm, vdso, PAGE_SIZE, 3), Err(Errno::EACCES));
            assert!(k.mm_maps_text(mm).contains("[vdso]"));
        }
        let c = k.mm_fork(a).unwrap();
        for mm in [a, b, c] {
            k.mm_release(mm);
        }
        assert_eq!(k.frames.free_bytes(), free);
        assert_eq!(k.frames.refs(k.time.page), 1);
    }
}

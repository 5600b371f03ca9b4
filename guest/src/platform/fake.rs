//! A platform without a machine, for unit tests and fuzzing: the arena is a sparse map of pages, page tables are a
//! map, and no guest code ever runs. Entropy and clocks are deterministic but advance.

use super::{Access, BadXstate, Gpa, Ns, PAGE_SIZE, Platform, PlatformError, Root, Va, Vcpu};
use crate::num::{u64_of, us};
use std::collections::BTreeMap;
use std::os::fd::BorrowedFd;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// See the module.
#[derive(Debug)]
pub struct FakePlatform {
    len: u64,
    vdso: Vec<u8>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    pages: BTreeMap<u64, Vec<u8>>,
    roots: BTreeMap<u64, BTreeMap<u64, (Gpa, Access)>>,
    next_root: u64,
    now: Ns,
    seed: u64,
    /// Calls of `map` and `protect` that succeed before one fails.
    budget: Option<u64>,
}

impl State {
    /// Takes one from the budget; false when it is used up.
    fn spend(&mut self) -> bool {
        match &mut self.budget {
            Some(0) => {
                self.budget = None;
                false
            }
            Some(n) => {
                *n -= 1;
                true
            }
            None => true,
        }
    }
}

impl FakePlatform {
    /// A fake with an arena of `len` bytes.
    pub fn new(len: u64) -> Self {
        FakePlatform {
            len,
            vdso: Vec::new(),
            state: Mutex::new(State { seed: 0x9e37_79b9_7f4a_7c15, ..State::default() }),
        }
    }

    /// The same with a vDSO image.
    pub fn with_vdso(self, vdso: Vec<u8>) -> Self {
        FakePlatform { vdso, ..self }
    }

    /// Moves the clocks forward by `ns`.
    pub fn advance(&self, ns: Ns) {
        let mut s = self.lock();
        s.now = s.now.saturating_add(ns);
    }

    /// After `calls` more of `map` and `protect` one fails (half of a range to protect is done); `None`: none does.
    pub fn fail_after(&self, calls: Option<u64>) {
        self.lock().budget = calls;
    }

    /// What user mode would reach at `va`: the guest-physical address and the access, or `None` for a page fault.
    pub fn translate(&self, root: Root, va: Va) -> Option<(Gpa, Access)> {
        let s = self.lock();
        let (gpa, access) = s.roots.get(&root.0)?.get(&(va / PAGE_SIZE))?;
        Some((gpa + va % PAGE_SIZE, *access))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn check(&self, gpa: Gpa, len: u64) -> Result<(), PlatformError> {
        match gpa.checked_add(len) {
            Some(end) if end <= self.len => Ok(()),
            _ => Err(PlatformError::OutOfArena { gpa, len }),
        }
    }

    fn each_page(gpa: Gpa, len: usize, mut f: impl FnMut(u64, usize, usize, usize)) {
        let mut done = 0;
        while done < len {
            let at = gpa + u64_of(done);
            let off = us(at % PAGE_SIZE);
            let n = (us(PAGE_SIZE) - off).min(len - done);
            f(at / PAGE_SIZE, off, done, n);
            done += n;
        }
    }
}

impl Platform for FakePlatform {
    fn arena_len(&self) -> u64 {
        self.len
    }

    fn read(&self, gpa: Gpa, buf: &mut [u8]) -> Result<(), PlatformError> {
        self.check(gpa, u64_of(buf.len()))?;
        let s = self.lock();
        Self::each_page(gpa, buf.len(), |page, off, done, n| {
            let Some(out) = buf.get_mut(done..done + n) else { return };
            match s.pages.get(&page).and_then(|p| p.get(off..off + n)) {
                Some(data) => out.copy_from_slice(data),
                None => out.fill(0),
            }
        });
        Ok(())
    }

    fn write(&self, gpa: Gpa, buf: &[u8]) -> Result<(), PlatformError> {
        self.check(gpa, u64_of(buf.len()))?;
        let mut s = self.lock();
        Self::each_page(gpa, buf.len(), |page, off, done, n| {
            let data = s.pages.entry(page).or_insert_with(|| vec![0; us(PAGE_SIZE)]);
            if let (Some(to), Some(from)) = (data.get_mut(off..off + n), buf.get(done..done + n)) {
                to.copy_from_slice(from);
            }
        });
        Ok(())
    }

    fn load_u32(&self, gpa: Gpa) -> Result<u32, PlatformError> {
        let mut b = [0; 4];
        self.read(gpa, &mut b)?;
        Ok(u32::from_le_bytes(b))
    }

    fn compare_exchange_u32(&self, gpa: Gpa, old: u32, new: u32) -> Result<Result<u32, u32>, PlatformError> {
        let seen = self.load_u32(gpa)?;
        if seen != old {
            return Ok(Err(seen));
        }
        self.write(gpa, &new.to_le_bytes())?;
        Ok(Ok(old))
    }

    fn ensure(&self, gpa: Gpa, len: u64) -> Result<(), PlatformError> {
        self.check(gpa, len)
    }

    fn attach_file(
        &self,
        gpa: Gpa,
        len: u64,
        file: BorrowedFd<'_>,
        offset: u64,
        _shared: bool,
    ) -> Result<(), PlatformError> {
        self.discard(gpa, len)?;
        let mut page = vec![0; us(PAGE_SIZE)];
        let mut at = 0;
        while at < len {
            let n = rustix::io::pread(file, &mut page, offset + at).map_err(|e| PlatformError::Host {
                what: "read a file to back guest memory",
                source: e.into(),
            })?;
            if n == 0 {
                break;
            }
            self.write(gpa + at, page.get(..n).unwrap_or_default())?;
            at += u64_of(n);
        }
        Ok(())
    }

    fn detach_file(&self, gpa: Gpa, len: u64) -> Result<(), PlatformError> {
        self.discard(gpa, len)
    }

    fn discard(&self, gpa: Gpa, len: u64) -> Result<(), PlatformError> {
        self.check(gpa, len)?;
        let (first, last) = (gpa / PAGE_SIZE, (gpa + len).div_ceil(PAGE_SIZE));
        let mut s = self.lock();
        let gone: Vec<u64> = s.pages.range(first..last).map(|(k, _)| *k).collect();
        for page in gone {
            s.pages.remove(&page);
        }
        Ok(())
    }

    fn resident(&self) -> u64 {
        u64_of(self.lock().pages.len()) * PAGE_SIZE
    }

    fn create_root(&self) -> Result<Root, PlatformError> {
        let mut s = self.lock();
        s.next_root += 1;
        let id = s.next_root;
        s.roots.insert(id, BTreeMap::new());
        Ok(Root(id))
    }

    fn destroy_root(&self, root: Root) -> bool {
        self.lock().roots.remove(&root.0);
        true
    }

    fn map(&self, root: Root, va: Va, gpa: Gpa, len: u64, access: Access) -> Result<(), PlatformError> {
        self.check(gpa, len)?;
        let mut s = self.lock();
        if !s.spend() {
            return Err(PlatformError::Exhausted);
        }
        let table = s.roots.entry(root.0).or_default();
        for i in 0..len / PAGE_SIZE {
            let old = table.insert(va / PAGE_SIZE + i, (gpa + i * PAGE_SIZE, access));
            debug_assert!(old.is_none(), "mapping over a present entry at {va:#x}+{i}");
        }
        Ok(())
    }

    fn unmap(&self, root: Root, va: Va, len: u64) -> Result<(), PlatformError> {
        let mut s = self.lock();
        let table = s.roots.entry(root.0).or_default();
        let gone: Vec<u64> = table.range(va / PAGE_SIZE..(va + len) / PAGE_SIZE).map(|(k, _)| *k).collect();
        for page in gone {
            table.remove(&page);
        }
        Ok(())
    }

    fn protect(&self, root: Root, va: Va, len: u64, access: Access) -> Result<(), PlatformError> {
        let mut s = self.lock();
        let whole = s.spend();
        let end = if whole { va + len } else { va + len / 2 };
        let table = s.roots.entry(root.0).or_default();
        for (_, entry) in table.range_mut(va / PAGE_SIZE..end / PAGE_SIZE) {
            entry.1 = access;
        }
        if whole { Ok(()) } else { Err(PlatformError::Exhausted) }
    }

    fn monotonic(&self) -> Ns {
        let mut s = self.lock();
        s.now += 1_000;
        s.now
    }

    fn realtime(&self) -> Ns {
        1_700_000_000_000_000_000 + self.monotonic()
    }

    fn tsc(&self) -> u64 {
        self.monotonic()
    }

    fn tsc_khz(&self) -> Option<u64> {
        Some(1_000_000)
    }

    fn tsc_aux_is_vcpu(&self) -> bool {
        true
    }

    fn entropy(&self, buf: &mut [u8]) {
        let mut s = self.lock();
        for b in buf {
            s.seed = s.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            *b = crate::num::low8(s.seed >> 33);
        }
    }

    fn vdso_image(&self) -> &[u8] {
        &self.vdso
    }

    fn xstate_len(&self) -> usize {
        576
    }

    fn xcr0(&self) -> u64 {
        3
    }

    fn kick(&self, _index: usize) {}
}

/// A vCPU that holds extended state and runs nothing.
#[derive(Debug)]
pub struct FakeVcpu {
    /// Its number.
    pub index: usize,
    /// Its extended state.
    pub xstate: Vec<u8>,
}

impl FakeVcpu {
    /// Vcpu number `index` in the initial state.
    pub fn new(index: usize) -> Self {
        FakeVcpu { index, xstate: vec![0; 576] }
    }
}

impl Vcpu for FakeVcpu {
    fn index(&self) -> usize {
        self.index
    }

    fn save_xstate(&mut self) -> Vec<u8> {
        self.xstate.clone()
    }

    fn load_xstate(&mut self, image: &[u8]) -> Result<(), BadXstate> {
        if image.len() != self.xstate.len() {
            return Err(BadXstate);
        }
        self.xstate = image.to_vec();
        Ok(())
    }

    fn reset_xstate(&mut self) {
        self.xstate.fill(0);
    }
}

//! Memory of sandbox processes as the host counts it (never by bookkeeping of our own).

use serde::Serialize;
use std::io::{Read, Seek, SeekFrom};

/// `/proc/PID/smaps_rollup`, KiB.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Usage {
    /// Resident.
    pub rss_kib: u64,
    /// Proportional share.
    pub pss_kib: u64,
    /// Held by this process only, clean and dirty.
    pub private_kib: u64,
    /// Held by others too.
    pub shared_kib: u64,
}

impl std::ops::AddAssign for Usage {
    fn add_assign(&mut self, other: Usage) {
        self.rss_kib += other.rss_kib;
        self.pss_kib += other.pss_kib;
        self.private_kib += other.private_kib;
        self.shared_kib += other.shared_kib;
    }
}

/// Reads a process's usage; `None` when it is gone.
pub fn usage(pid: i32) -> Option<Usage> {
    parse(&std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?)
}

fn parse(text: &str) -> Option<Usage> {
    let mut usage = Usage::default();
    for line in text.lines() {
        let Some((name, rest)) = line.split_once(':') else { continue };
        let Some(kib) = rest.trim().strip_suffix(" kB").and_then(|n| n.trim().parse::<u64>().ok()) else {
            continue;
        };
        match name {
            "Rss" => usage.rss_kib = kib,
            "Pss" => usage.pss_kib = kib,
            "Private_Clean" | "Private_Dirty" => usage.private_kib += kib,
            "Shared_Clean" | "Shared_Dirty" => usage.shared_kib += kib,
            _ => {}
        }
    }
    (usage.rss_kib > 0).then_some(usage)
}

/// How many resident pages of `child` are the very page frames that `parent` has at the same address: (same, resident). Needs
/// CAP_SYS_ADMIN to see frame numbers; `None` without it.
pub fn shared_frames(child: i32, parent: i32) -> Option<(u64, u64)> {
    let maps = std::fs::read_to_string(format!("/proc/{child}/maps")).ok()?;
    let mut ours = std::fs::File::open(format!("/proc/{child}/pagemap")).ok()?;
    let mut theirs = std::fs::File::open(format!("/proc/{parent}/pagemap")).ok()?;
    let (mut same, mut resident, mut visible) = (0, 0, false);
    for line in maps.lines() {
        let range = line.split(' ').next()?;
        let (start, end) = range.split_once('-')?;
        let (start, end) = (u64::from_str_radix(start, 16).ok()?, u64::from_str_radix(end, 16).ok()?);
        if start >= 1 << 47 {
            continue;
        }
        let mut page = start / 4096;
        while page < end / 4096 {
            let n = (end / 4096 - page).min(65536);
            let (a, b) = (entries(&mut ours, page, n)?, entries(&mut theirs, page, n)?);
            for (x, y) in a.iter().zip(&b) {
                if x >> 63 == 1 {
                    let frame = x & ((1 << 55) - 1);
                    resident += 1;
                    visible |= frame != 0;
                    same += u64::from(y >> 63 == 1 && frame == y & ((1 << 55) - 1));
                }
            }
            page += n;
        }
    }
    visible.then_some((same, resident))
}

fn entries(file: &mut std::fs::File, page: u64, n: u64) -> Option<Vec<u64>> {
    file.seek(SeekFrom::Start(page * 8)).ok()?;
    let mut bytes = vec![0; usize::try_from(n).ok()? * 8];
    let mut have = 0;
    while have < bytes.len() {
        match file.read(&mut bytes[have..]).ok()? {
            0 => break,
            k => have += k,
        }
    }
    Some(bytes.chunks_exact(8).map(|c| u64::from_le_bytes(c.try_into().unwrap_or_default())).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_is_clean_plus_dirty() {
        let text = "55e0-7ffc ---p 0 00:00 0 [rollup]\nRss: 100 kB\nPss: 50 kB\nShared_Clean: 10 kB\nShared_Dirty: 20 kB\n\
                    Private_Clean: 30 kB\nPrivate_Dirty: 40 kB\nAnonHugePages: 0 kB\n";
        assert_eq!(parse(text), Some(Usage { rss_kib: 100, pss_kib: 50, private_kib: 70, shared_kib: 30 }));
        assert_eq!(parse(""), None);
    }

    #[test]
    fn this_process_shares_every_page_with_itself() {
        let me = std::process::id() as i32;
        if let Some((same, resident)) = shared_frames(me, me) {
            assert!(resident > 0 && same * 10 >= resident * 9, "{same} of {resident}");
        }
    }
}

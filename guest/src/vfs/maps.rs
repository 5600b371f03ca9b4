//! Reading /proc/PID/maps and smaps piece by piece: an address space may have 65,530 mappings, and the text of all of them is not made
//! anew for each of a reader's pieces.

use super::InodeId;
use crate::kernel::Kernel;
use crate::num::{u64_of, us};
use crate::platform::Va;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

/// Readers whose place is remembered; another one starts from the beginning, which is slower and right.
const READERS: usize = 8;

/// Where a reader is: the record at this address begins at this offset of the text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    inode: InodeId,
    mm: u64,
    offset: u64,
    va: Va,
}

impl Kernel {
    /// Reads such a file, as one mapping after another; like Linux, a reader that goes on where it was does so by address, whatever has been
    /// mapped meanwhile. `None` for other files.
    pub(super) fn maps_read(
        &mut self,
        inode: InodeId,
        path: &str,
        offset: u64,
        buf: &mut [u8],
    ) -> Option<usize> {
        let smaps = match path.rsplit('/').next() {
            Some("maps") => false,
            Some("smaps") => true,
            _ => return None,
        };
        let mm = self.synth_task(path)?.1.mm;
        let known = self.vfs.places.iter().filter(|p| p.inode == inode && p.mm == mm && p.offset <= offset);
        let (mut at, from) = known.max_by_key(|p| p.offset).map_or((0, 0), |p| (p.offset, p.va));
        let mut done = 0;
        let mut last = None;
        self.mm_records(mm, from, smaps, |va, record| {
            let skip = us(offset.saturating_sub(at)).min(record.len());
            let wanted = record.as_bytes().get(skip..).unwrap_or_default();
            let n = wanted.len().min(buf.len() - done);
            if let (Some(to), Some(from)) = (buf.get_mut(done..done + n), wanted.get(..n)) {
                to.copy_from_slice(from);
            }
            done += n;
            last = Some(Place { inode, mm, offset: at, va });
            at += u64_of(record.len());
            done < buf.len()
        });
        if let Some(place) = last {
            remember(&mut self.vfs.places, place, offset);
        }
        Some(done)
    }
}

/// Replaces the place that the reader came from.
fn remember(places: &mut VecDeque<Place>, place: Place, offset: u64) {
    places.retain(|p| p.inode != place.inode || p.mm == place.mm && p.offset > offset);
    places.push_back(place);
    if places.len() > READERS {
        places.pop_front();
    }
}

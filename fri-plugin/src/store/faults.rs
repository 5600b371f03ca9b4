//! A disk that fails when a test wants it to.

use redb::backends::FileBackend;
use redb::{BackendError, Builder, Database, DatabaseError, StorageBackend};
use std::cell::Cell;
use std::io;
use std::ops::Bound;
use std::path::Path;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};

thread_local! {
    /// Writes that succeed in this test, and then no more; negative for all.
    static LEFT: Cell<Option<Arc<AtomicI64>>> = const { Cell::new(None) };
}

/// From here on the stores that this thread opens share a disk with that much space, in writes.
pub fn limit() -> Arc<AtomicI64> {
    let left = Arc::new(AtomicI64::new(i64::MAX));
    LEFT.set(Some(left.clone()));
    left
}

pub fn open(builder: &Builder, path: &Path) -> Result<Database, DatabaseError> {
    let left = LEFT.take();
    LEFT.set(left.clone());
    let Some(left) = left else { return builder.open(path) };
    let file = std::fs::OpenOptions::new().read(true).write(true).open(path)?;
    builder.create_with_backend(Faulty { file: FileBackend::new(file)?, left, lock: Mutex::default() })
}

#[derive(Debug)]
struct Faulty {
    file: FileBackend,
    left: Arc<AtomicI64>,
    lock: Mutex<()>,
}

impl Faulty {
    fn spend(&self) -> io::Result<()> {
        let _alone = self.lock.lock().unwrap();
        if self.left.fetch_sub(1, Ordering::SeqCst) <= 0 {
            self.left.store(0, Ordering::SeqCst);
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }
}

impl StorageBackend for Faulty {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.spend()?;
        self.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.spend()?;
        self.file.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        if let Err(error) = self.spend() {
            // A part of it is written, as on a disk with some space left.
            self.file.write(offset, &data[..data.len() / 2])?;
            return Err(error);
        }
        self.file.write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.file.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.try_lock_range(start, end)
    }

    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.query_lock_range(start, end)
    }
}

//! What functions print: the last of it in memory and, in a file per function, a little more.
//!
//! A function that prints without end costs no more than its bounds: lines have a longest length, the ring of a function has a number of bytes,
//! as have the two files that take turns, and a function has a rate beyond which lines are dropped and counted. Nothing here waits for
//! the disk or for a reader on the way of a request: what the writer or a follower cannot take in time is dropped for them, and counted.

mod backwards;
mod file;
mod line;
mod request;
#[cfg(test)]
mod tests;

use file::{Job, Writer};
use line::Ring;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{broadcast, mpsc, oneshot};

pub use line::{Line, Stream};
pub use request::{RequestLog, TAIL};

/// Lines that wait for the writer, of all functions.
const QUEUE: usize = 1024;
/// Lines that a follower may be behind.
const FOLLOW: usize = 256;

/// The logs of a node. A handle: copies are of the same.
#[derive(Clone, Debug)]
pub struct Logs(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    dir: PathBuf,
    /// Bytes of a function's lines in memory.
    memory: usize,
    functions: Mutex<BTreeMap<String, Arc<FunctionLog>>>,
    /// Those who follow all functions.
    followers: Followers,
    /// `None` where nothing goes to disk.
    writer: Option<mpsc::Sender<Job>>,
    dropped: Arc<AtomicU64>,
}

/// The log of one function.
#[derive(Debug)]
pub struct FunctionLog {
    name: String,
    ring: Mutex<Ring>,
    followers: Followers,
    removed: AtomicBool,
    logs: std::sync::Weak<Inner>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A channel that is there only as long as somebody listens.
#[derive(Debug, Default)]
struct Followers(Mutex<Option<broadcast::Sender<Arc<Line>>>>);

impl Followers {
    fn follow(&self) -> broadcast::Receiver<Arc<Line>> {
        lock(&self.0).get_or_insert_with(|| broadcast::Sender::new(FOLLOW)).subscribe()
    }

    fn tell(&self, line: &Arc<Line>) {
        let mut sender = lock(&self.0);
        if sender.as_ref().is_some_and(|s| s.send(line.clone()).is_err()) {
            *sender = None;
        }
    }
}

impl Logs {
    /// Opens the logs of a state directory and starts their writer, in the tokio runtime that this is called in. `disk` is bytes on disk per
    /// function, 0 for none; `memory` bytes in memory per function.
    pub fn open(state: &Path, disk: u64, memory: u64) -> Logs {
        let dir = state.join("logs");
        let dropped = Arc::new(AtomicU64::new(0));
        let writer = (disk > 0).then(|| {
            let (sender, receiver) = mpsc::channel(QUEUE);
            tokio::spawn(Writer::new(dir.clone(), disk, dropped.clone()).run(receiver));
            sender
        });
        Logs(Arc::new(Inner {
            dir,
            memory: usize::try_from(memory).unwrap_or(usize::MAX),
            functions: Mutex::default(),
            followers: Followers::default(),
            writer,
            dropped,
        }))
    }

    /// The log of a function. The name is one that [`crate::name::check`] takes.
    pub fn of(&self, function: &str) -> Arc<FunctionLog> {
        let mut functions = lock(&self.0.functions);
        if let Some(log) = functions.get(function) {
            return log.clone();
        }
        let log = Arc::new(FunctionLog {
            name: function.to_owned(),
            ring: Mutex::new(Ring::new(self.0.memory)),
            followers: Followers::default(),
            removed: AtomicBool::new(false),
            logs: Arc::downgrade(&self.0),
        });
        functions.insert(function.to_owned(), log.clone());
        log
    }

    /// The log of one request to a function that there is: what its instance prints goes there.
    pub fn request(&self, function: &str, request_id: &str) -> RequestLog {
        RequestLog::new(self.of(function), request_id)
    }

    /// The last lines of a function, the oldest first: from memory, and from the disk where that has more.
    pub async fn tail(&self, function: &str, lines: usize) -> Vec<Arc<Line>> {
        let log = lock(&self.0.functions).get(function).cloned();
        let kept = log.map_or_else(Vec::new, |log| lock(&log.ring).last(lines));
        if kept.len() >= lines || self.0.writer.is_none() {
            return kept;
        }
        self.flush().await;
        let (dir, name) = (self.0.dir.clone(), function.to_owned());
        let read = tokio::task::spawn_blocking(move || file::last(&dir, &name, lines)).await;
        let read = read.unwrap_or_default();
        // On the disk there may be lines that the ring had to drop; in the ring there may be some that the disk could not take.
        if read.len() > kept.len() { read.into_iter().map(Arc::new).collect() } else { kept }
    }

    /// Lines of a function as they come; of all functions for `None`. A follower that is too slow is told that it has missed some.
    pub fn follow(&self, function: Option<&str>) -> broadcast::Receiver<Arc<Line>> {
        match function {
            Some(function) => self.of(function).followers.follow(),
            None => self.0.followers.follow(),
        }
    }

    /// Forgets a function's log, on the disk too. Requests that are still at work write to memory only.
    pub async fn remove(&self, function: &str) {
        if let Some(log) = lock(&self.0.functions).remove(function) {
            log.removed.store(true, Ordering::Release);
        }
        self.job(|done| Job::Remove(function.to_owned(), done)).await;
    }

    /// Removes the files of functions that are not there any more.
    pub async fn collect(&self, functions: BTreeSet<String>) {
        self.job(|done| Job::Collect(functions, done)).await;
    }

    /// Waits until what was printed before is written.
    pub async fn flush(&self) {
        self.job(Job::Flush).await;
    }

    async fn job(&self, job: impl FnOnce(oneshot::Sender<()>) -> Job) {
        let Some(writer) = &self.0.writer else { return };
        let (done, waits) = oneshot::channel();
        if writer.send(job(done)).await.is_ok() {
            let _ = waits.await;
        }
    }

    /// Lines that were dropped so far: printed too fast, or not taken by the disk.
    pub fn dropped(&self) -> u64 {
        self.0.dropped.load(Ordering::Relaxed)
    }
}

impl FunctionLog {
    /// Whose.
    pub fn function(&self) -> &str {
        &self.name
    }

    /// Adds a line. Never waits.
    pub fn add(&self, line: Line) {
        let line = Arc::new(line);
        let logs = self.logs.upgrade();
        let admitted = lock(&self.ring).push(&line);
        let count = |n| {
            if let Some(logs) = &logs {
                logs.dropped.fetch_add(n, Ordering::Relaxed);
            }
        };
        if !admitted {
            count(1);
            return;
        }
        self.followers.tell(&line);
        let Some(logs) = &logs else { return };
        logs.followers.tell(&line);
        if let Some(writer) = &logs.writer
            && !self.removed.load(Ordering::Acquire)
            && writer.try_send(Job::Line(line)).is_err()
        {
            count(1);
        }
    }
}

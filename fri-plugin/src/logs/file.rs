//! The files: `STATE/logs/NAME.jsonl`, one JSON object a line, and `NAME.jsonl.1`, which was that before it had its bytes.

use super::backwards::Backwards;
use super::line::Line;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};

const EXTENSION: &str = "jsonl";
const OLDER: &str = "jsonl.1";
/// Jobs that are done together.
const BATCH: usize = 256;
/// Between two complaints.
const COMPLAIN: Duration = Duration::from_secs(60);

/// What the writer is asked to do.
#[derive(Debug)]
pub enum Job {
    /// Write a line.
    Line(Arc<Line>),
    /// Remove a function's files.
    Remove(String, oneshot::Sender<()>),
    /// Remove the files of all functions but these.
    Collect(BTreeSet<String>, oneshot::Sender<()>),
    /// Say when everything before is done.
    Flush(oneshot::Sender<()>),
}

/// Writes lines, one batch after another.
#[derive(Debug)]
pub struct Writer {
    dir: PathBuf,
    /// Bytes of one of a function's two files.
    most: u64,
    dropped: Arc<AtomicU64>,
    complained: Option<Instant>,
}

impl Writer {
    /// For a directory; `bytes` is for both files of a function.
    pub fn new(dir: PathBuf, bytes: u64, dropped: Arc<AtomicU64>) -> Writer {
        Writer { dir, most: bytes / 2, dropped, complained: None }
    }

    /// Runs until nobody can ask for anything any more.
    pub async fn run(mut self, mut jobs: mpsc::Receiver<Job>) {
        let mut batch = Vec::with_capacity(BATCH);
        while jobs.recv_many(&mut batch, BATCH).await > 0 {
            let work = std::mem::take(&mut batch);
            let done = tokio::task::spawn_blocking(move || {
                self.work(work);
                self
            });
            match done.await {
                Ok(writer) => self = writer,
                // Only when the runtime ends.
                Err(_) => return,
            }
        }
    }

    fn work(&mut self, jobs: Vec<Job>) {
        let mut lines: BTreeMap<String, Vec<Arc<Line>>> = BTreeMap::new();
        for job in jobs {
            if let Job::Line(line) = job {
                lines.entry(line.function.clone()).or_default().push(line);
                continue;
            }
            self.write(std::mem::take(&mut lines));
            match job {
                Job::Line(_) => {}
                Job::Remove(name, done) => {
                    remove(&self.dir, &name);
                    let _ = done.send(());
                }
                Job::Collect(functions, done) => {
                    collect(&self.dir, &functions);
                    let _ = done.send(());
                }
                Job::Flush(done) => {
                    let _ = done.send(());
                }
            }
        }
        self.write(lines);
    }

    fn write(&mut self, lines: BTreeMap<String, Vec<Arc<Line>>>) {
        for (name, lines) in lines {
            let Err((dropped, error)) = self.append(&name, &lines) else { continue };
            self.dropped.fetch_add(dropped as u64, Ordering::Relaxed);
            if self.complained.is_none_or(|at| at.elapsed() > COMPLAIN) {
                self.complained = Some(Instant::now());
                tracing::warn!(function = name, %error, dropped, "lines of a log are dropped: it cannot be written");
            }
        }
    }

    /// An error comes with the number of lines that are not written.
    fn append(&self, name: &str, lines: &[Arc<Line>]) -> Result<(), (usize, io::Error)> {
        let path = self.dir.join(name).with_extension(EXTENSION);
        let all = |e| (lines.len(), e);
        let mut file = None;
        for (n, line) in lines.iter().enumerate() {
            let fail = |e| (lines.len() - n, e);
            let mut text = serde_json::to_vec(&**line).map_err(|e| fail(e.into()))?;
            text.push(b'\n');
            let (mut open, mut bytes) = match file.take() {
                Some(open) => open,
                None => self.open(&path).map_err(all)?,
            };
            if bytes + text.len() as u64 > self.most && bytes > 0 {
                drop(open);
                std::fs::rename(&path, self.dir.join(name).with_extension(OLDER)).map_err(fail)?;
                (open, bytes) = self.open(&path).map_err(fail)?;
            }
            open.write_all(&text).map_err(fail)?;
            file = Some((open, bytes + text.len() as u64));
        }
        Ok(())
    }

    /// Opens a file at its end, after a whole line; and its size.
    fn open(&self, path: &Path) -> io::Result<(File, u64)> {
        let mut options = OpenOptions::new();
        options.read(true).append(true).create(true);
        let mut file = match options.open(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                std::fs::create_dir_all(&self.dir)?;
                options.open(path)?
            }
            other => other?,
        };
        let bytes = file.metadata()?.len();
        if bytes > 0 {
            // A crash or a full disk may have cut the last line.
            file.seek(SeekFrom::End(-1))?;
            let mut last = [0];
            file.read_exact(&mut last)?;
            if last != *b"\n" {
                file.write_all(b"\n")?;
                return Ok((file, bytes + 1));
            }
        }
        Ok((file, bytes))
    }
}

fn remove(dir: &Path, name: &str) {
    for extension in [EXTENSION, OLDER] {
        let path = dir.join(name).with_extension(extension);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                tracing::warn!(path = %path.display(), %error, "a log cannot be removed");
            }
            _ => {}
        }
    }
}

fn collect(dir: &Path, functions: &BTreeSet<String>) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some((function, _)) = name.to_str().and_then(|n| n.split_once('.')) else { continue };
        if !functions.contains(function) {
            remove(dir, function);
        }
    }
}

/// The last lines of a function's files, the oldest first. What is no line of ours is left out.
pub fn last(dir: &Path, name: &str, lines: usize) -> Vec<Line> {
    let mut found: Vec<Line> = Vec::new();
    for extension in [EXTENSION, OLDER] {
        let file = File::open(dir.join(name).with_extension(extension)).and_then(Backwards::open);
        let parsed = file.into_iter().flatten().filter_map(|line| serde_json::from_slice(&line).ok());
        found.extend(parsed.take(lines - found.len()));
        if found.len() >= lines {
            break;
        }
    }
    found.reverse();
    found
}

//! Runs tests: several at once, each under limits of time and output, with nothing left behind.

use crate::outcome::{Cases, Class, Ended, Record};
use crate::side::Side;
use crate::store::Store;
use crate::suite::{Item, Suite};
use anyhow::Context;
use indicatif::{ProgressBar, ProgressStyle};
use rustix::process::{Pid, Signal, kill_process_group};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::IsTerminal;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Nothing inside may take longer, whatever it took natively.
const LONGEST: Duration = Duration::from_secs(900);

/// A test that prints more is out of hand; it is killed. Bytes.
const LONGEST_LOG: u64 = 64 << 20;

/// Runs tests and keeps their logs.
pub struct Runner {
    folder: PathBuf,
    jobs: usize,
    end: Option<Instant>,
    stop: Arc<AtomicBool>,
    /// Seconds that tests took natively.
    native: BTreeMap<String, f64>,
}

impl Runner {
    /// A runner that keeps its files in `folder`. A signal stops it in good order.
    pub fn new(folder: &Path, jobs: Option<u32>, budget: Option<u64>) -> anyhow::Result<Runner> {
        let stop = Arc::new(AtomicBool::new(false));
        for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM, signal_hook::consts::SIGHUP]
        {
            signal_hook::flag::register(signal, stop.clone()).context("cannot handle signals")?;
        }
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let jobs = jobs.map_or((processors / 2).max(1), |j| usize::try_from(j).unwrap_or(1));
        let end = budget.map(|minutes| Instant::now() + Duration::from_secs(minutes.saturating_mul(60)));
        Ok(Runner { folder: folder.to_owned(), jobs, end, stop, native: BTreeMap::new() })
    }

    /// The same runner, with limits that follow what tests took natively.
    pub fn after(&self, native: &[Record]) -> Runner {
        Runner {
            folder: self.folder.clone(),
            jobs: self.jobs,
            end: self.end,
            stop: self.stop.clone(),
            native: native.iter().map(|r| (r.item.clone(), r.seconds)).collect(),
        }
    }

    /// Whether the run ends before its time: by a signal or for its budget.
    pub fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed) || self.end.is_some_and(|end| Instant::now() > end)
    }

    /// Runs those tests on one side; the results, with those that earlier runs have left.
    pub fn side(
        &self,
        suite: &Suite,
        side: &Side,
        items: &[&Item],
        key: &str,
        store: &mut Store,
        passes: bool,
    ) -> anyhow::Result<Vec<Record>> {
        let name = side.name();
        let todo: Vec<&Item> =
            items.iter().copied().filter(|i| store.get(name, &i.name, key, passes).is_none()).collect();
        let progress = Progress::new(&format!("{} {name}", suite.name), todo.len());
        let (next, store_lock) = (AtomicUsize::new(0), Mutex::new((&mut *store, None)));
        std::thread::scope(|scope| {
            for _ in 0..self.jobs.min(todo.len()) {
                scope.spawn(|| {
                    while let Some(item) = todo.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let result = match self.one(suite, side, item, key) {
                            Ok(Some(record)) => {
                                progress.step(&record);
                                let mut guard = store_lock.lock().unwrap_or_else(|e| e.into_inner());
                                guard.0.put(record)
                            }
                            Ok(None) => break,
                            Err(error) => Err(error),
                        };
                        if let Err(error) = result {
                            store_lock.lock().unwrap_or_else(|e| e.into_inner()).1 = Some(error);
                            break;
                        }
                    }
                });
            }
        });
        progress.bar.finish_and_clear();
        if let Some(error) = store_lock.into_inner().unwrap_or_else(|e| e.into_inner()).1 {
            return Err(error);
        }
        Ok(items
            .iter()
            .filter_map(|i| {
                store.get(name, &i.name, key, false).or(store.get(name, &i.name, key, passes)).cloned()
            })
            .collect())
    }

    /// Runs what has just failed once more, alone: a pass then is a pass, and flaky.
    pub fn again(
        &self,
        suite: &Suite,
        side: &Side,
        items: &[&Item],
        key: &str,
        store: &mut Store,
        records: &mut [Record],
    ) -> anyhow::Result<()> {
        let failed: Vec<&mut Record> = records
            .iter_mut()
            .filter(|r| matches!(r.class, Class::Fail | Class::Timeout) && !r.retried)
            .collect();
        let progress = Progress::new(&format!("{} {} again, alone", suite.name, side.name()), failed.len());
        for record in failed {
            let Some(item) = items.iter().find(|i| i.name == record.item) else { continue };
            let Some(mut second) = self.one(suite, side, item, key)? else { break };
            second.flaky = second.class == Class::Pass;
            second.retried = true;
            progress.step(&second);
            store.put(second.clone())?;
            *record = second;
        }
        progress.bar.finish_and_clear();
        Ok(())
    }

    /// Runs one test; `None` when the run has been stopped.
    fn one(&self, suite: &Suite, side: &Side, item: &Item, key: &str) -> anyhow::Result<Option<Record>> {
        if self.stopped() {
            return Ok(None);
        }
        let natively = self.native.get(&item.name);
        let limit = natively.map_or(suite.limit, |seconds| {
            Duration::from_secs_f64(seconds * 10.0).max(suite.limit).min(LONGEST)
        });
        let scratch = tempfile::Builder::new().prefix("scratch-").tempdir_in(&self.folder);
        let scratch =
            scratch.with_context(|| format!("cannot make a directory in {}", self.folder.display()))?;
        let log = log_path(&self.folder, suite.name, side.name(), &item.name);
        if let Some(parent) = log.parent() {
            std::fs::create_dir_all(parent)?;
        }
        let output = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        let mut command = side.command(suite, item, scratch.path());
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output.try_clone()?);
        let start = Instant::now();
        let child = command.spawn().context("cannot start setsid: install util-linux")?;
        let (status, timed_out) = self.wait(child, limit, &output)?;
        if self.stop.load(Ordering::Relaxed) {
            return Ok(None);
        }
        let ended = Ended {
            status: status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0)),
            timed_out,
            text: String::from_utf8_lossy(&std::fs::read(&log)?).into_owned(),
        };
        let (class, cases): (Class, Cases) = (suite.classify)(&ended);
        Ok(Some(Record {
            side: side.name().to_owned(),
            item: item.name.clone(),
            key: key.to_owned(),
            class,
            status: ended.status,
            seconds: start.elapsed().as_secs_f64(),
            cases,
            flaky: false,
            retried: false,
        }))
    }

    /// Waits for a test's end; kills its process group when its time is up, the run is stopped, or it prints without end.
    fn wait(&self, mut child: Child, limit: Duration, log: &File) -> anyhow::Result<(ExitStatus, bool)> {
        let (start, group) = (Instant::now(), i32::try_from(child.id()).ok().and_then(Pid::from_raw));
        let kill = || group.map(|group| kill_process_group(group, Signal::KILL));
        let mut timed_out = false;
        let status = loop {
            if let Some(status) = child.try_wait()? {
                break status;
            }
            timed_out = start.elapsed() > limit;
            let long = log.metadata().is_ok_and(|m| m.len() > LONGEST_LOG);
            if timed_out || long || self.stop.load(Ordering::Relaxed) {
                kill();
                break child.wait()?;
            }
            std::thread::sleep(Duration::from_millis(10));
        };
        // What the test started and left in its group.
        kill();
        Ok((status, timed_out))
    }
}

/// Where the output of a test is kept.
pub fn log_path(folder: &Path, suite: &str, side: &str, item: &str) -> PathBuf {
    folder.join("logs").join(suite).join(side).join(format!("{item}.log"))
}

/// Progress: a bar on a terminal, lines otherwise.
struct Progress {
    bar: ProgressBar,
    name: String,
    plain: bool,
    total: usize,
    done: AtomicUsize,
    bad: AtomicUsize,
}

impl Progress {
    fn new(name: &str, total: usize) -> Progress {
        let bar = ProgressBar::new(u64::try_from(total).unwrap_or(u64::MAX));
        if let Ok(style) = ProgressStyle::with_template("{prefix} {wide_bar} {pos}/{len} {eta} {msg}") {
            bar.set_style(style);
        }
        bar.set_prefix(name.to_owned());
        let plain = !std::io::stderr().is_terminal();
        if plain && total > 0 {
            eprintln!("{name}: {total} tests");
        }
        Progress {
            bar,
            name: name.to_owned(),
            plain,
            total,
            done: AtomicUsize::new(0),
            bad: AtomicUsize::new(0),
        }
    }

    fn step(&self, record: &Record) {
        let done = self.done.fetch_add(1, Ordering::Relaxed) + 1;
        let failed = matches!(record.class, Class::Fail | Class::Timeout);
        let bad = self.bad.fetch_add(usize::from(failed), Ordering::Relaxed) + usize::from(failed);
        self.bar.inc(1);
        self.bar.set_message(format!("{bad} failed"));
        if failed && record.side != "native" {
            let line =
                format!("{}: {} {:?} after {:.1} s", self.name, record.item, record.class, record.seconds);
            if self.plain { eprintln!("{line}") } else { self.bar.println(line) }
        }
        if self.plain && (done.is_multiple_of(50) || done == self.total) {
            eprintln!("{}: {done} of {}, {bad} failed", self.name, self.total);
        }
    }
}

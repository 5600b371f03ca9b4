//! What became of one test.

use serde::{Deserialize, Serialize};

/// How a test ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Class {
    /// It ran and found nothing wrong.
    Pass,
    /// It found something wrong, or died.
    Fail,
    /// It said that it cannot run here.
    Skip,
    /// It was killed when its time was up.
    Timeout,
}

/// How many cases a test ran, and how many of those it skipped; a module that passes because it skips more is seen by this.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cases {
    /// Cases, skipped ones included.
    pub ran: u64,
    /// Skipped cases.
    pub skipped: u64,
}

/// How a command ended, with what it printed (stdout and stderr together).
#[derive(Clone, Debug)]
pub struct Ended {
    /// Exit status, or 128 + N for death by signal N.
    pub status: i32,
    /// Whether it had to be killed.
    pub timed_out: bool,
    /// What it printed.
    pub text: String,
}

/// One result, as target/conformance keeps it: a line of JSON.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Record {
    /// `native`, `coppice` or a peer's name.
    pub side: String,
    /// The test's name.
    pub item: String,
    /// Versions of everything that the result depends on; one with another key is stale.
    pub key: String,
    /// How it ended.
    pub class: Class,
    /// Exit status, as in [`Ended`].
    pub status: i32,
    /// Wall-clock seconds.
    pub seconds: f64,
    /// Cases, where the suite counts them.
    pub cases: Cases,
    /// It failed among others and passed alone.
    #[serde(default)]
    pub flaky: bool,
    /// It is the second try, alone.
    #[serde(default)]
    pub retried: bool,
}

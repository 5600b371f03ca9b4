//! What the evaluation and the conformance command share: the release build, and pairs of commands timed in turn.
#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

/// Where cargo builds: `CARGO_TARGET_DIR`, or the workspace's own.
pub fn target() -> PathBuf {
    let own = || Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("/")).join("target");
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(own, PathBuf::from)
}

/// Builds the release binary of `coppice`; its path. Cargo's messages go to stderr.
pub fn build() -> std::io::Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .args(["build", "--release", "--locked", "--package", "coppice", "--bin", "coppice"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .status()?;
    if !status.success() {
        return Err(std::io::Error::other("cargo build failed"));
    }
    Ok(target().join("release/coppice"))
}

/// Median of samples; `NaN` when there are none.
pub fn median(samples: &[f64]) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Runs a command to its end; wall-clock seconds (`CLOCK_MONOTONIC`) and stdout, or `None` when it fails or is not there.
pub fn time(argv: &[&str]) -> Option<(f64, String)> {
    let (program, args) = argv.split_first()?;
    let start = Instant::now();
    let output = Command::new(program).args(args).stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    let seconds = start.elapsed().as_secs_f64();
    output.status.success().then(|| (seconds, String::from_utf8_lossy(&output.stdout).into_owned()))
}

/// Two commands run in turn, A B A B ...: both medians and the median of the ratios A/B pair by pair.
pub struct Pair {
    /// Median of A.
    pub a: f64,
    /// Median of B.
    pub b: f64,
    /// Median of A/B.
    pub ratio: f64,
}

/// Times a pair after one warm-up of each. `figure` turns (seconds, stdout) into what is compared.
pub fn pair(a: &[&str], b: &[&str], runs: usize, figure: impl Fn(f64, &str) -> Option<f64>) -> Option<Pair> {
    let one = |argv: &[&str]| time(argv).and_then(|(s, out)| figure(s, &out));
    one(a)?;
    one(b)?;
    let (mut left, mut right, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..runs {
        let (x, y) = (one(a)?, one(b)?);
        left.push(x);
        right.push(y);
        ratios.push(x / y);
    }
    Some(Pair { a: median(&left), b: median(&right), ratio: median(&ratios) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_against_itself_is_about_one_and_a_missing_one_is_none() {
        let pair = pair(&["true"], &["true"], 5, |s, _| Some(s)).unwrap();
        assert!(pair.ratio > 0.05 && pair.ratio < 20.0);
        assert!(time(&["/nowhere/at/all"]).is_none());
        assert!(time(&["false"]).is_none());
    }
}

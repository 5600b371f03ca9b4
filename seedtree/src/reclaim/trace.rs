//! Traces of requests: as CSV, and made up with the skew of real ones.

use std::io::{BufRead, Write};

/// The first line of a trace.
pub const HEADER: &str = "time_s,function,duration_ms,memory_mib";

/// One request.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// When it comes, ns from the trace's start.
    pub at: u64,
    /// Which function.
    pub function: String,
    /// How long it runs, ns.
    pub duration: u64,
    /// What a seed of the function holds, bytes.
    pub memory: u64,
}

/// Errors of reading a trace.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// The file cannot be read.
    #[error("cannot read the trace")]
    Read(#[source] std::io::Error),
    /// The first line is another.
    #[error("the trace's first line has to be `{HEADER}`")]
    Header,
    /// A line is no request.
    #[error(
        "line {line} of the trace: {what} (a line is TIME,FUNCTION,DURATION,MEMORY: seconds, a name, milliseconds, MiB)"
    )]
    Line {
        /// Which, from 1.
        line: usize,
        /// What is wrong.
        what: &'static str,
    },
}

/// Reads a trace; its requests come in the order of their time.
pub fn read(input: impl BufRead) -> Result<Vec<Request>, TraceError> {
    let mut lines = input.lines().enumerate();
    match lines.next() {
        Some((_, Ok(first))) if first.trim() == HEADER => {}
        Some((_, Err(error))) => return Err(TraceError::Read(error)),
        _ => return Err(TraceError::Header),
    }
    let mut requests = Vec::new();
    for (index, line) in lines {
        let line = line.map_err(TraceError::Read)?;
        if line.trim().is_empty() {
            continue;
        }
        let wrong = |what| TraceError::Line { line: index + 1, what };
        let fields: Vec<&str> = line.split(',').map(str::trim).collect();
        let [time, function, duration, memory] = fields[..] else {
            return Err(wrong("it has not four fields"));
        };
        if function.is_empty() {
            return Err(wrong("the function has no name"));
        }
        requests.push(Request {
            at: scaled(time, 1e9).ok_or(wrong("the time is no number of seconds"))?,
            function: function.to_owned(),
            duration: scaled(duration, 1e6).ok_or(wrong("the duration is no number of milliseconds"))?,
            memory: scaled(memory, 1_048_576.0).ok_or(wrong("the memory is no number of MiB"))?,
        });
    }
    requests.sort_by_key(|r| r.at);
    Ok(requests)
}

/// A number that is not negative and not beyond what a century has in nanoseconds, times `unit`.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // checked just before
fn scaled(text: &str, unit: f64) -> Option<u64> {
    let value = text.parse::<f64>().ok()? * unit;
    (0.0..4e18).contains(&value).then_some(value as u64)
}

/// Writes a trace.
#[allow(clippy::cast_precision_loss)] // to three decimals
pub fn write(out: &mut impl Write, requests: &[Request]) -> std::io::Result<()> {
    writeln!(out, "{HEADER}")?;
    for r in requests {
        let (time, duration) = (r.at as f64 / 1e9, r.duration as f64 / 1e6);
        writeln!(out, "{time:.3},{},{duration:.3},{}", r.function, r.memory >> 20)?;
    }
    Ok(())
}

/// What a made-up trace is to be like.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Functions, at least 1.
    pub functions: usize,
    /// Length, seconds.
    pub seconds: f64,
    /// The same number gives the same trace.
    pub seed: u64,
}

/// Part of the functions that are asked for most of the time, and their part of the requests.
const HOT: (f64, f64) = (0.05, 0.95);
/// Part of the functions that are hardly ever asked for.
const RARE: f64 = 0.5;
/// Seconds between requests of a rare function, and of those in between: from, to.
const RARE_GAP: (f64, f64) = (3_600.0, 21_600.0);
const MIDDLE_GAP: (f64, f64) = (120.0, 1_200.0);

/// Makes up a trace with the skew that AFaaS reports of production: 95 % of the requests go to a few functions, and half of the functions are
/// asked for so rarely that a keep-alive of ten minutes leaves three quarters of their starts and more cold.
pub fn synthetic(shape: &Shape) -> Vec<Request> {
    let mut rng = fastrand::Rng::with_seed(shape.seed);
    let count = shape.functions.max(1);
    let part = |of: f64| scale(count, of);
    let (hot, rare) = (part(HOT.0).max(1), part(RARE));
    // Requests a second of each function; the hot ones' follow from the others'.
    let mut rates: Vec<f64> = (hot..count)
        .map(|n| {
            if n >= count - rare {
                1.0 / between(&mut rng, RARE_GAP)
            } else {
                1.0 / between(&mut rng, MIDDLE_GAP)
            }
        })
        .collect();
    let others: f64 = rates.iter().sum::<f64>().max(0.05);
    // Zipf among the hot.
    let weights: Vec<f64> = (1..=hot).map(|n| 1.0 / scale_f(n)).collect();
    let all: f64 = weights.iter().sum();
    let hot_rate = others * HOT.1 / (1.0 - HOT.1);
    rates.splice(0..0, weights.iter().map(|w| hot_rate * w / all));
    let mut requests = Vec::new();
    for (n, rate) in rates.iter().enumerate() {
        let memory = (between(&mut rng, (7.0, 135.0)) * 1_048_576.0).round();
        let usual = between(&mut rng, (1.0, 2_000.0));
        let mut at = 0.0;
        loop {
            // A Poisson stream.
            at += -(1.0 - rng.f64()).ln() / rate;
            if at >= shape.seconds {
                break;
            }
            let duration = usual * between(&mut rng, (0.5, 2.0));
            requests.push(Request {
                at: nanoseconds(at),
                function: format!("f{n:04}"),
                duration: nanoseconds(duration / 1e3),
                memory: nanoseconds(memory / 1e9),
            });
        }
    }
    requests.sort_by_key(|r| r.at);
    requests
}

/// Log-uniform: as likely between 1 and 10 as between 10 and 100.
fn between(rng: &mut fastrand::Rng, (from, to): (f64, f64)) -> f64 {
    from * (to / from).powf(rng.f64())
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // a part of a count; a time of a trace
fn nanoseconds(seconds: f64) -> u64 {
    (seconds * 1e9) as u64
}

#[allow(clippy::cast_precision_loss)] // a count of functions
fn scale_f(n: usize) -> f64 {
    n as f64
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // a part of a count
fn scale(n: usize, by: f64) -> usize {
    (scale_f(n) * by).round() as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_is_read_as_it_was_written() {
        let shape = Shape { functions: 20, seconds: 3_600.0, seed: 7 };
        let made = synthetic(&shape);
        assert!(made.len() > 100 && made.windows(2).all(|w| w[0].at <= w[1].at));
        let mut text = Vec::new();
        write(&mut text, &made).unwrap();
        let read = read(&text[..]).unwrap();
        assert_eq!(read.len(), made.len());
        for (a, b) in read.iter().zip(&made) {
            assert!(a.at.abs_diff(b.at) <= 1_000_000 && a.duration.abs_diff(b.duration) <= 1_000);
        }
        assert_eq!(synthetic(&shape), made);
    }

    #[test]
    fn what_is_no_trace_is_refused_by_line() {
        let body = |line: &str| read(format!("{HEADER}\n1,f,2,3\n{line}\n").as_bytes());
        assert!(matches!(read(&b""[..]), Err(TraceError::Header)));
        assert!(matches!(read(&b"1,f,2,3\n"[..]), Err(TraceError::Header)));
        for bad in ["1,f,2", "x,f,2,3", "-1,f,2,3", "1,,2,3", "1,f,nan,3", "1,f,2,1e300", "1,f,2,3,4"] {
            assert!(matches!(body(bad), Err(TraceError::Line { line: 3, .. })), "{bad}");
        }
        assert_eq!(body("0.5,g,2,3").unwrap()[0].function, "g");
    }
}

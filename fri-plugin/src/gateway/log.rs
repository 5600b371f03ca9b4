//! The lines that AWS Lambda writes around what a function prints, and the tail of the log.

use super::errors::FunctionFailure;
use crate::daemon::invoke::LOG_TAIL;
use base64::Engine as _;
use serde_json::Value;
use std::time::Duration;

/// What the lines are about.
#[derive(Debug)]
pub struct Report<'a> {
    /// The request.
    pub request_id: &'a str,
    /// As the answer has it.
    pub version: &'a str,
    /// How long it took.
    pub duration: Duration,
    /// Memory limit, MB as AWS Lambda counts (MiB).
    pub memory: u64,
    /// How the function's process failed.
    pub failure: Option<&'a FunctionFailure>,
    /// The function's own description of its error, JSON.
    pub error: Option<&'a [u8]>,
}

impl Report<'_> {
    /// `START` before what the function printed, `END` and `REPORT` behind it; the last 4 KiB of it all, in base64.
    pub fn tail(&self, printed: &[u8]) -> String {
        let mut log =
            format!("START RequestId: {} Version: {}\n", self.request_id, self.version).into_bytes();
        log.extend_from_slice(printed);
        if printed.last().is_some_and(|b| *b != b'\n') {
            log.push(b'\n');
        }
        log.extend_from_slice(self.end().as_bytes());
        let surplus = log.len().saturating_sub(LOG_TAIL);
        // Not in the middle of a character.
        let inside = |b: &&u8| **b & 0xC0 == 0x80;
        let cut = surplus + log.iter().skip(surplus).take(3).take_while(inside).count();
        base64::engine::general_purpose::STANDARD.encode(log.get(cut..).unwrap_or_default())
    }

    fn end(&self) -> String {
        let id = self.request_id;
        let mut text = String::new();
        let mut status = String::new();
        if let Some(error) = self.error {
            text += &traceback(error);
            status = "\tStatus: error\tError Type: Function.Unhandled".to_owned();
        }
        if let Some(failure) = self.failure {
            text += &format!("RequestId: {id} Error: {}\n", failure.message);
            let word = if failure.kind == "Sandbox.Timedout" { "timeout" } else { "error" };
            status = format!("\tStatus: {word}\tError Type: {}", failure.kind);
        }
        let ms = self.duration.as_secs_f64() * 1000.0;
        text += &format!(
            "END RequestId: {id}\nREPORT RequestId: {id}\tDuration: {ms:.2} ms\tBilled Duration: {:.0} ms\tMemory Size: {} MB{status}\t\n",
            ms.ceil(),
            self.memory,
        );
        text
    }
}

/// What AWS Lambda's runtimes print of an error that the handler did not catch.
fn traceback(error: &[u8]) -> String {
    let Ok(error) = serde_json::from_slice::<Value>(error) else { return String::new() };
    let text = |key: &str| error.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let mut lines = format!("[ERROR] {}: {}\n", text("errorType"), text("errorMessage"));
    for line in error.get("stackTrace").and_then(Value::as_array).into_iter().flatten() {
        let line = line.as_str().unwrap_or_default();
        lines += line.strip_suffix('\n').unwrap_or(line);
        lines.push('\n');
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report<'static> {
        Report {
            request_id: "id",
            version: "$LATEST",
            duration: Duration::from_micros(1234),
            memory: 128,
            failure: None,
            error: None,
        }
    }

    fn decoded(text: &str) -> String {
        String::from_utf8(base64::engine::general_purpose::STANDARD.decode(text).unwrap()).unwrap()
    }

    #[test]
    fn the_lines_stand_around_the_functions_own() {
        let want = "START RequestId: id Version: $LATEST\nhello\nEND RequestId: id\nREPORT RequestId: id\tDuration: 1.23 ms\t\
                    Billed Duration: 2 ms\tMemory Size: 128 MB\t\n";
        assert_eq!(decoded(&report().tail(b"hello")), want);
        let error =
            br#"{"errorType": "ValueError", "errorMessage": "no", "stackTrace": ["  one\n", "  two"]}"#;
        let text = decoded(&Report { error: Some(error), ..report() }.tail(b""));
        assert!(text.contains("\n[ERROR] ValueError: no\n  one\n  two\nEND"), "{text}");
        let failure = FunctionFailure::timeout(3000);
        let text = decoded(&Report { failure: Some(&failure), ..report() }.tail(b""));
        assert!(text.contains("Task timed out after 3.00 seconds\nEND") && text.contains("Status: timeout"));
    }

    #[test]
    fn the_tail_has_4_kib_and_no_half_character() {
        let long = "ü".repeat(4000);
        for extra in ["", "x"] {
            let text = decoded(&report().tail(format!("{long}{extra}").as_bytes()));
            assert!(
                (LOG_TAIL - 1..=LOG_TAIL).contains(&text.len()) && text.starts_with('ü'),
                "{}",
                text.len()
            );
        }
    }
}

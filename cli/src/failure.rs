//! A function's own description of its error, as it is shown.

use serde_json::{Value, json};

/// The description as JSON; text that is none is wrapped.
pub fn parsed(error: &[u8]) -> Value {
    serde_json::from_slice(error).unwrap_or_else(
        |_| json!({"errorType": "Runtime.Malformed", "errorMessage": String::from_utf8_lossy(error)}),
    )
}

/// Prints the traceback and the error on stderr.
pub fn trace(error: &[u8]) {
    let value = parsed(error);
    // Python's lines end in a line feed each, those of Node.js do not.
    for line in ["stackTrace", "trace"].iter().filter_map(|key| value[*key].as_array()).flatten() {
        tell!("{}", line.as_str().unwrap_or_default().trim_end_matches('\n'));
    }
    let text = |key: &str| value[key].as_str().unwrap_or_default().to_owned();
    tell!("coppice: the function failed: {}: {}", text("errorType"), text("errorMessage"));
}

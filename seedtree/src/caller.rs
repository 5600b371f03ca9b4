//! What a client says of itself beside the event: what AWS Lambda's X-Amz-Client-Context and X-Amzn-Trace-Id tell a function.

use std::time::{SystemTime, UNIX_EPOCH};

/// Longest trace header that is passed on, bytes. AWS X-Ray's have some 80.
const LONGEST_TRACE: usize = 256;

/// The client context is not the text of a JSON object (UTF-8, nested 127 levels at most), as the runtimes read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the client context must be a JSON object")]
pub struct NotAnObject;

/// What a function is told of its caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    client_context: Option<String>,
    trace: Option<String>,
}

impl Caller {
    /// `client_context` is the text of a JSON object. A trace header that cannot be one is left out, as if there were none. `None` where nothing is said.
    pub fn new(client_context: Option<Vec<u8>>, trace: Option<&str>) -> Result<Option<Caller>, NotAnObject> {
        // The runtimes get the text as it is: what this parser takes, theirs take.
        let read = |bytes| {
            let text = String::from_utf8(bytes).map_err(|_| NotAnObject)?;
            match serde_json::from_str(&text) {
                Ok(serde_json::Value::Object(_)) => Ok(text),
                _ => Err(NotAnObject),
            }
        };
        let client_context = client_context.map(read).transpose()?;
        let fits = |t: &&str| {
            (1..=LONGEST_TRACE).contains(&t.len()) && t.bytes().all(|b| b == b' ' || b.is_ascii_graphic())
        };
        let trace = trace.filter(fits).map(str::to_owned);
        let says_something = client_context.is_some() || trace.is_some();
        Ok(says_something.then_some(Caller { client_context, trace }))
    }

    /// The same without its client context, which is told at once or not at all.
    pub fn later(self) -> Option<Caller> {
        self.trace.map(|trace| Caller { client_context: None, trace: Some(trace) })
    }

    /// `client_context` of the handler's context: the text of a JSON object.
    pub fn client_context(&self) -> Option<&str> {
        self.client_context.as_deref()
    }

    /// `_X_AMZN_TRACE_ID` of the handler's environment.
    pub fn trace(&self) -> Option<&str> {
        self.trace.as_deref()
    }
}

/// The client context for a header: without line ends, and what is not ASCII escaped, for few readers of headers take it. Both stand in strings
/// only, or mean nothing.
pub(crate) fn header(client_context: &str) -> String {
    let mut line = String::with_capacity(client_context.len());
    for c in client_context.chars() {
        match c {
            '\r' | '\n' => line.push(' '),
            '\x7f'.. => {
                let units = c
                    .encode_utf16(&mut [0; 2])
                    .iter()
                    .map(|unit| format!("\\u{unit:04x}"))
                    .collect::<String>();
                line.push_str(&units);
            }
            _ => line.push(c),
        }
    }
    line
}

/// The caller's trace, or one of the form of AWS X-Ray whose numbers differ from those of other requests.
pub(crate) fn trace(caller: Option<&Caller>) -> String {
    let own = || {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let (seconds, nanos, micros) = (now.as_secs(), now.as_nanos(), now.as_micros());
        format!("Root=1-{seconds:08x}-{nanos:024x};Parent={micros:016x};Sampled=0")
    };
    caller.and_then(Caller::trace).map_or_else(own, str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_has_the_same_object_in_ascii() {
        let text = "{\r\n\"a\u{fc}\u{1f600}\x7f\": 1}";
        let line = header(text);
        assert_eq!(line, r#"{  "a\u00fc\ud83d\ude00\u007f": 1}"#);
        let value = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
        assert_eq!(value(&line), value(text));
    }

    #[test]
    fn what_no_runtime_could_read_is_refused_or_left_out() {
        let context = |json: &[u8]| Caller::new(Some(json.to_vec()), None);
        let deep = r#"{"a":"#.repeat(200) + "1" + &"}".repeat(200);
        for bad in [&b""[..], b"no", b"\"\xff\"", br#""\ud800""#, b"1 2", b"[]", b"null", deep.as_bytes()] {
            assert_eq!(context(bad), Err(NotAnObject), "{}", String::from_utf8_lossy(bad));
        }
        assert_eq!(context(b"{\n}").unwrap().unwrap().client_context(), Some("{\n}"));
        assert_eq!(Caller::new(None, None), Ok(None));
        for bad in ["", "a\r\nb", "\u{fc}", &"x".repeat(257)] {
            assert_eq!(Caller::new(None, Some(bad)), Ok(None), "{bad:?}");
        }
        assert_eq!(Caller::new(None, Some("Root=1-2-3")).unwrap().unwrap().trace(), Some("Root=1-2-3"));
    }
}

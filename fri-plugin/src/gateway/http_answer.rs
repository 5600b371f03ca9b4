//! A function's result as an HTTP response: `{statusCode, headers, cookies, body, isBase64Encoded}`, or anything else as the body itself.
//!
//! The result is a stranger's: what is no header, no status or no body makes no response.

use super::http_event::is_hop_by_hop;
use axum::body::Body;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE, SET_COOKIE};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::Response;
use base64::Engine as _;
use serde_json::Value;

/// Most headers and cookies of an answer.
const MOST_HEADERS: usize = 200;
/// Most bytes of them.
const HEADER_BYTES: usize = 64 << 10;

/// The response; `None` where the result has a `statusCode` but is no response.
pub fn response(result: Vec<u8>) -> Option<Response> {
    // Most results that are not of the form do not even have the word in them, and are not parsed.
    let formed = result.first() == Some(&b'{') && contains(&result, b"\"statusCode\"");
    if !formed {
        return Some(inferred(result));
    }
    let Ok(Value::Object(mut fields)) = serde_json::from_slice(&result) else {
        return Some(inferred(result));
    };
    let Some(status) = fields.get("statusCode") else { return Some(inferred(result)) };
    let status = status.as_u64().or_else(|| status.as_str()?.parse().ok())?;
    // Informational ones would not end the exchange.
    let status = u16::try_from(status).ok().filter(|s| (200..600).contains(s))?;
    let status = StatusCode::from_u16(status).ok()?;
    let encoded = match fields.get("isBase64Encoded") {
        None | Some(Value::Null) => false,
        Some(value) => value.as_bool()?,
    };
    let mut headers = HeaderMap::new();
    let mut bytes = 0;
    match fields.get("headers") {
        None | Some(Value::Null) => {}
        Some(Value::Object(given)) => {
            for (name, value) in given {
                add(&mut headers, &mut bytes, name, value)?;
            }
        }
        Some(_) => return None,
    }
    match fields.get("cookies") {
        None | Some(Value::Null) => {}
        Some(Value::Array(cookies)) => {
            for cookie in cookies {
                let cookie = cookie.as_str()?;
                bytes += cookie.len();
                if headers.len() >= MOST_HEADERS || bytes > HEADER_BYTES {
                    return None;
                }
                headers.try_append(SET_COOKIE, HeaderValue::from_str(cookie).ok()?).ok()?;
            }
        }
        Some(_) => return None,
    }
    let body = match fields.remove("body") {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::String(text)) if encoded => {
            base64::engine::general_purpose::STANDARD.decode(text).ok()?
        }
        Some(Value::String(text)) => text.into_bytes(),
        Some(_) => return None,
    };
    let bodiless = matches!(status.as_u16(), 204 | 205 | 304);
    if !bodiless && !headers.contains_key(CONTENT_TYPE) {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    }
    let mut response = Response::new(if bodiless { Body::empty() } else { Body::from(body) });
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    Some(response)
}

fn contains(text: &[u8], word: &[u8]) -> bool {
    text.windows(word.len()).any(|w| w == word)
}

fn add(headers: &mut HeaderMap, bytes: &mut usize, name: &str, value: &Value) -> Option<()> {
    let lower = name.to_ascii_lowercase();
    let name = HeaderName::from_bytes(lower.as_bytes()).ok()?;
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Number(_) | Value::Bool(_) => value.to_string(),
        _ => return None,
    };
    let value = HeaderValue::from_str(&text).or_else(|_| HeaderValue::from_bytes(text.as_bytes())).ok()?;
    *bytes += lower.len() + text.len();
    if headers.len() >= MOST_HEADERS || *bytes > HEADER_BYTES {
        return None;
    }
    // The gateway's own business: how long the body is, and how it goes over the connection.
    if !is_hop_by_hop(&lower) && name != CONTENT_LENGTH {
        headers.try_append(name, value).ok()?;
    }
    Some(())
}

/// A result without the form: 200, with the text of a string, or JSON.
fn inferred(result: Vec<u8>) -> Response {
    let body = match result.first() {
        Some(b'"') => serde_json::from_slice::<String>(&result).map_or(result, String::into_bytes),
        _ => result,
    };
    let mut response = Response::new(Body::from(body));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    async fn answer(result: Value) -> Option<(u16, HeaderMap, Vec<u8>)> {
        let (head, body) = response(result.to_string().into_bytes())?.into_parts();
        let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
        Some((head.status.as_u16(), head.headers, body.to_vec()))
    }

    #[tokio::test]
    async fn a_formed_answer_is_taken_as_it_says() {
        let (status, headers, body) = answer(json!({
            "statusCode": 201, "headers": {"X-A": "b", "n": 7, "Content-Length": "99", "Transfer-Encoding": "chunked"},
            "cookies": ["a=1; Path=/", "b=2"], "body": "/wA=", "isBase64Encoded": true,
        }))
        .await
        .unwrap();
        assert_eq!((status, body), (201, vec![0xFF, 0]));
        assert!(headers["x-a"] == "b" && headers["n"] == "7");
        assert_eq!(headers.get_all("set-cookie").iter().collect::<Vec<_>>(), ["a=1; Path=/", "b=2"]);
        assert!(!headers.contains_key("content-length") && !headers.contains_key("transfer-encoding"));
        let (status, headers, body) = answer(json!({"statusCode": "404"})).await.unwrap();
        assert_eq!((status, body), (404, Vec::new()));
        assert_eq!(headers["content-type"], "text/plain; charset=utf-8");
        let (status, headers, body) = answer(json!({"statusCode": 204, "body": "x"})).await.unwrap();
        assert_eq!((status, headers.len(), body), (204, 0, Vec::new()));
    }

    #[tokio::test]
    async fn anything_else_is_the_body() {
        for (result, want) in [
            (json!({"a": 1}), "{\"a\":1}"),
            (json!("plain"), "plain"),
            (json!([1]), "[1]"),
            (json!(null), "null"),
            (json!({"x": "\"statusCode\""}), "{\"x\":\"\\\"statusCode\\\"\"}"),
        ] {
            let (status, headers, body) = answer(result).await.unwrap();
            assert_eq!((status, body.as_slice()), (200, want.as_bytes()));
            assert_eq!(headers["content-type"], "application/json");
        }
    }

    #[tokio::test]
    async fn no_header_or_status_can_be_smuggled() {
        for bad in [
            json!({"statusCode": 100}),
            json!({"statusCode": 101}),
            json!({"statusCode": 99999}),
            json!({"statusCode": "x"}),
            json!({"statusCode": -1}),
            json!({"statusCode": 200, "headers": {"a\r\nb": "c"}}),
            json!({"statusCode": 200, "headers": {"a": "b\r\nc: d"}}),
            json!({"statusCode": 200, "headers": {"a": "b\u{0}"}}),
            json!({"statusCode": 200, "headers": {"": "b"}}),
            json!({"statusCode": 200, "headers": {"a": ["b"]}}),
            json!({"statusCode": 200, "cookies": ["a\nb"]}),
            json!({"statusCode": 200, "cookies": "a=b"}),
            json!({"statusCode": 200, "body": {"a": 1}}),
            json!({"statusCode": 200, "body": "%", "isBase64Encoded": true}),
            json!({"statusCode": 200, "isBase64Encoded": "yes"}),
            json!({"statusCode": 200, "headers": [1]}),
            json!({"statusCode": 200, "cookies": vec!["a=b"; 201]}),
            json!({"statusCode": 200, "headers": {"a": "x".repeat(70_000)}}),
        ] {
            assert!(answer(bad.clone()).await.is_none(), "{bad}");
        }
    }
}

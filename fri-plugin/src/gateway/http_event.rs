//! An HTTP request as an event of API Gateway's payload format 2.0.

use super::{Peer, times};
use axum::extract::Query;
use axum::http::header::{CONNECTION, CONTENT_ENCODING, CONTENT_TYPE, COOKIE, HOST, USER_AGENT};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, Version};
use base64::Engine as _;
use serde_json::{Map, Value, json};
use std::time::{SystemTime, UNIX_EPOCH};

/// Headers that are between two hops only (RFC 9110, section 7.6.1).
const HOP_BY_HOP: [&str; 8] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Whether a header is between two hops only.
pub fn is_hop_by_hop(name: &str) -> bool {
    HOP_BY_HOP.contains(&name)
}

/// The event, JSON.
pub fn event(
    head: &Parts,
    function: &str,
    raw_path: &str,
    body: &[u8],
    peer: Option<Peer>,
    id: &str,
) -> Vec<u8> {
    let now = SystemTime::now();
    let header = |name: HeaderName| head.headers.get(name).map(|v| latin(v.as_bytes())).unwrap_or_default();
    let domain = match head.headers.get(HOST) {
        Some(host) => latin(host.as_bytes()),
        None => head.uri.authority().map(|a| a.as_str().to_owned()).unwrap_or_default(),
    };
    let query = head.uri.query().unwrap_or_default();
    let mut event = json!({
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": raw_path,
        "rawQueryString": query,
        "headers": headers(&head.headers),
        "requestContext": {
            "accountId": "000000000000",
            "apiId": function,
            "domainName": domain,
            "domainPrefix": domain.split(['.', ':']).next().unwrap_or_default(),
            "http": {
                "method": head.method.as_str(),
                "path": raw_path,
                "protocol": protocol(head.version),
                "sourceIp": peer.map(|p| p.0.ip().to_canonical().to_string()).unwrap_or_default(),
                "userAgent": header(USER_AGENT),
            },
            "requestId": id,
            "routeKey": "$default",
            "stage": "$default",
            "time": times::access_log(now),
            "timeEpoch": u64::try_from(now.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis()).unwrap_or(0),
        },
    });
    let cookies = cookies(&head.headers);
    if !cookies.is_empty() {
        event["cookies"] = cookies.into();
    }
    let parameters = parameters(head);
    if !parameters.is_empty() {
        event["queryStringParameters"] = parameters.into();
    }
    let text = is_text(&head.headers).then(|| std::str::from_utf8(body).ok()).flatten();
    event["isBase64Encoded"] = (text.is_none() && !body.is_empty()).into();
    if !body.is_empty() {
        let encoded = || base64::engine::general_purpose::STANDARD.encode(body);
        event["body"] = text.map_or_else(encoded, str::to_owned).into();
    }
    event.to_string().into_bytes()
}

fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_2 => "HTTP/2.0",
        _ => "HTTP/1.1",
    }
}

/// Header values are bytes; what is not UTF-8 is taken for ISO 8859-1, as HTTP/1.0 did.
fn latin(bytes: &[u8]) -> String {
    std::str::from_utf8(bytes).map_or_else(|_| bytes.iter().map(|b| char::from(*b)).collect(), str::to_owned)
}

/// Names in lower case, the values of one name joined with commas; without cookies and what is between hops.
fn headers(headers: &HeaderMap) -> Map<String, Value> {
    let named: Vec<String> = headers
        .get_all(CONNECTION)
        .iter()
        .flat_map(|v| {
            latin(v.as_bytes()).split(',').map(|n| n.trim().to_ascii_lowercase()).collect::<Vec<_>>()
        })
        .collect();
    let mut map = Map::new();
    for name in headers.keys() {
        if *name == COOKIE || is_hop_by_hop(name.as_str()) || named.iter().any(|n| n == name.as_str()) {
            continue;
        }
        let values: Vec<String> = headers.get_all(name).iter().map(|v| latin(v.as_bytes())).collect();
        map.insert(name.as_str().to_owned(), values.join(",").into());
    }
    map
}

fn cookies(headers: &HeaderMap) -> Vec<String> {
    let all = headers.get_all(COOKIE).iter().map(|v| latin(v.as_bytes()));
    all.flat_map(|text| {
        text.split(';').map(|c| c.trim().to_owned()).filter(|c| !c.is_empty()).collect::<Vec<_>>()
    })
    .collect()
}

/// Decoded; the values of one name joined with commas.
fn parameters(head: &Parts) -> Map<String, Value> {
    let mut map: Map<String, Value> = Map::new();
    let pairs = Query::<Vec<(String, String)>>::try_from_uri(&head.uri);
    for (name, value) in pairs.map(|Query(pairs)| pairs).unwrap_or_default() {
        match map.get_mut(&name) {
            Some(Value::String(before)) => {
                before.push(',');
                before.push_str(&value);
            }
            _ => {
                map.insert(name, value.into());
            }
        }
    }
    map
}

/// Whether the body is passed on as text; everything else goes as base64.
fn is_text(headers: &HeaderMap) -> bool {
    if headers.contains_key(CONTENT_ENCODING) {
        return false;
    }
    let kind = headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    kind.starts_with("text/")
        || kind.ends_with("+json")
        || kind.ends_with("+xml")
        || matches!(
            kind.as_str(),
            "application/json"
                | "application/xml"
                | "application/javascript"
                | "application/x-www-form-urlencoded"
        )
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::Request;

    fn made(request: axum::http::request::Builder, body: &[u8]) -> Value {
        let (head, ()) = request.body(()).unwrap().into_parts();
        let peer = Some(Peer("192.0.2.7:99".parse().unwrap()));
        serde_json::from_slice(&event(&head, "f", head.uri.path(), body, peer, "id")).unwrap()
    }

    #[test]
    fn a_request_is_passed_on_whole() {
        let request = Request::post("http://x.example/a%20b/c?x=1&y=a%20b&x=2&z")
            .header("Host", "x.example:80")
            .header("X-One", "1")
            .header("x-one", "2")
            .header("Cookie", "a=1; b=2")
            .header("cookie", "c=3")
            .header("Connection", "keep-alive, X-Hop")
            .header("X-Hop", "1")
            .header("Upgrade", "websocket")
            .header("User-Agent", "me")
            .header("Content-Type", "application/json; charset=utf-8");
        let event = made(request, "{\"ü\": 1}".as_bytes());
        for (pointer, want) in [
            ("/version", json!("2.0")),
            ("/routeKey", json!("$default")),
            ("/rawPath", json!("/a%20b/c")),
            ("/rawQueryString", json!("x=1&y=a%20b&x=2&z")),
            ("/queryStringParameters", json!({"x": "1,2", "y": "a b", "z": ""})),
            ("/cookies", json!(["a=1", "b=2", "c=3"])),
            (
                "/headers",
                json!({"host": "x.example:80", "x-one": "1,2", "user-agent": "me", "content-type": "application/json; charset=utf-8"}),
            ),
            ("/requestContext/http/method", json!("POST")),
            ("/requestContext/http/sourceIp", json!("192.0.2.7")),
            ("/requestContext/http/userAgent", json!("me")),
            ("/requestContext/domainPrefix", json!("x")),
            ("/requestContext/requestId", json!("id")),
            ("/body", json!("{\"ü\": 1}")),
            ("/isBase64Encoded", json!(false)),
        ] {
            assert_eq!(event.pointer(pointer), Some(&want), "{pointer}");
        }
    }

    #[test]
    fn binary_bodies_go_as_base64_and_missing_parts_are_left_out() {
        let event = made(Request::put("/").header("content-type", "image/png"), &[0xFF, 0]);
        assert_eq!((&event["body"], &event["isBase64Encoded"]), (&json!("/wA="), &json!(true)));
        let event = made(Request::put("/").header("content-type", "text/plain"), &[0xFF, 0]);
        assert_eq!(event["isBase64Encoded"], true);
        let event = made(
            Request::put("/").header("content-type", "text/plain").header("content-encoding", "gzip"),
            b"x",
        );
        assert_eq!(event["isBase64Encoded"], true);
        let event = made(Request::get("/"), b"");
        for missing in ["body", "cookies", "queryStringParameters"] {
            assert_eq!(event.get(missing), None, "{missing}");
        }
        assert_eq!(event["isBase64Encoded"], false);
    }
}

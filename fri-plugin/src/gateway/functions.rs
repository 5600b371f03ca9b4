//! What the AWS Lambda API tells of functions, as far as an SDK or a CLI needs it to look at a node.
//!
//! Environments are left out: they may hold secrets, and the gateway asks nobody who they are.

use super::errors::{REQUEST_ID, Refusal, arn};
use super::name::Addressed;
use super::{Gateway, times};
use crate::daemon::invoke::new_request_id;
use crate::proto;
use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use serde_json::{Value, json};

/// How many functions one answer lists, at most, as on AWS Lambda.
const PAGE: usize = 50;

/// What the query of a list says.
#[derive(Debug, Default, serde::Deserialize)]
pub struct Page {
    #[serde(rename = "Marker")]
    marker: Option<String>,
    #[serde(rename = "MaxItems")]
    max_items: Option<usize>,
}

/// `GET /2015-03-31/functions/`.
pub async fn list(State(gateway): State<Gateway>, page: Result<Query<Page>, QueryRejection>) -> Response {
    let page = match page {
        Ok(Query(page)) => page,
        Err(error) => return identified(Refusal::from(error).into_response()),
    };
    let most = page.max_items.unwrap_or(PAGE).clamp(1, PAGE);
    let after = page.marker.filter(|m| !m.is_empty());
    let behind = |f: &proto::Function| after.as_ref().is_none_or(|m| name_of(f) > m.as_str());
    let mut functions: Vec<proto::Function> =
        gateway.daemon.functions().into_iter().filter(behind).take(most + 1).collect();
    let more = functions.len() > most;
    functions.truncate(most);
    let next = functions.last().filter(|_| more).map(|f| name_of(f).to_owned());
    let functions: Vec<Value> = functions.iter().map(|f| describe(f, None)).collect();
    identified(Json(json!({"Functions": functions, "NextMarker": next})).into_response())
}

/// `GET /2015-03-31/functions/NAME`.
pub async fn get(State(gateway): State<Gateway>, addressed: Addressed) -> Response {
    let function = find(&gateway, addressed);
    let whole = function.map(|(function, version)| {
        let concurrency = function.spec.as_ref().map_or(0, |s| s.concurrency);
        json!({
            "Configuration": describe(&function, version),
            "Code": {"RepositoryType": "coppice"},
            "Concurrency": {"ReservedConcurrentExecutions": concurrency},
        })
    });
    identified(whole.map(Json).into_response())
}

/// `GET /2015-03-31/functions/NAME/configuration`.
pub async fn configuration(State(gateway): State<Gateway>, addressed: Addressed) -> Response {
    let function = find(&gateway, addressed);
    identified(function.map(|(function, version)| Json(describe(&function, version))).into_response())
}

fn identified(mut response: Response) -> Response {
    if let Ok(id) = new_request_id().parse() {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    response
}

fn find(gateway: &Gateway, Addressed(target): Addressed) -> Result<(proto::Function, Option<u64>), Refusal> {
    let target = target?;
    let function =
        gateway.daemon.function(&target.name).map_err(|_| Refusal::no_function(&target.name, None))?;
    match target.version {
        Some(version) if version != function.version => {
            Err(Refusal::no_function(&target.name, Some(&version.to_string())))
        }
        version => Ok((function, version)),
    }
}

fn name_of(function: &proto::Function) -> &str {
    function.spec.as_ref().map_or("", |s| s.name.as_str())
}

fn describe(function: &proto::Function, version: Option<u64>) -> Value {
    let default = proto::FunctionSpec::default();
    let spec = function.spec.as_ref().unwrap_or(&default);
    let qualifier = version.map(|v| v.to_string());
    let (state, reason) = match function.state.as_str() {
        "failed" => ("Failed", Some("InternalError")),
        "starting" => ("Pending", Some("Creating")),
        "shrunk" => ("Inactive", Some("Idle")),
        _ => ("Active", None),
    };
    let mut value = json!({
        "FunctionName": spec.name,
        "FunctionArn": arn(&spec.name, qualifier.as_deref()),
        "Runtime": spec.runtime,
        "Role": "arn:aws:iam::000000000000:role/coppice",
        "Handler": spec.handler,
        "CodeSize": function.code_bytes,
        "Description": spec.description,
        "Timeout": spec.timeout_ms.div_ceil(1000),
        "MemorySize": spec.memory_bytes >> 20,
        "LastModified": times::iso(function.created_unix_ns),
        "CodeSha256": base64::engine::general_purpose::STANDARD.encode(unhex(&function.code_sha256)),
        "Version": qualifier.as_deref().unwrap_or("$LATEST"),
        "RevisionId": function.version.to_string(),
        "State": state,
        "LastUpdateStatus": "Successful",
        "PackageType": "Zip",
        "Architectures": ["x86_64"],
    });
    if let Some(reason) = reason {
        value["StateReasonCode"] = reason.into();
        value["StateReason"] = function.reason.as_str().into();
    }
    value
}

fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.chars().filter_map(|c| u8::try_from(c.to_digit(16)?).ok()).collect();
    digits.chunks_exact(2).map(|pair| pair.iter().fold(0, |sum, digit| sum << 4 | digit)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_size_of_the_code_is_told() {
        let function = proto::Function { code_bytes: 4711, ..Default::default() };
        assert_eq!(describe(&function, None)["CodeSize"], 4711);
    }

    #[test]
    fn a_digest_is_told_in_base64() {
        assert_eq!(unhex("00ff1a"), [0, 255, 26]);
        assert_eq!(unhex("zz"), [0_u8; 0]);
    }
}

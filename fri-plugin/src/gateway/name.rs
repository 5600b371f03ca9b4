//! Names of functions as the AWS Lambda API has them: a name, a part of an ARN or a whole one, each with or without a qualifier.

use super::Gateway;
use super::errors::Refusal;
use axum::extract::{FromRequestParts, Path, Query};
use axum::http::request::Parts;
use std::convert::Infallible;

/// Whom a request is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Name of the function on this node.
    pub name: String,
    /// Version that was asked for; `None` for `$LATEST`.
    pub version: Option<u64>,
}

impl Target {
    /// As the answer's `X-Amz-Executed-Version` has it.
    pub fn executed_version(&self) -> String {
        self.version.map_or_else(|| "$LATEST".to_owned(), |v| v.to_string())
    }
}

/// What the query says.
#[derive(Debug, Default, serde::Deserialize)]
struct Qualified {
    /// `$LATEST` or the number of a version.
    #[serde(rename = "Qualifier")]
    qualifier: Option<String>,
}

/// Whom the path and the query name, or why they name nobody.
#[derive(Debug)]
pub struct Addressed(pub Result<Target, Refusal>);

impl FromRequestParts<Gateway> for Addressed {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, gateway: &Gateway) -> Result<Addressed, Infallible> {
        let path = Path::<String>::from_request_parts(parts, gateway).await;
        let query = Query::<Qualified>::from_request_parts(parts, gateway).await;
        let target = || parse(&path?, query?.qualifier.as_deref());
        Ok(Addressed(target()))
    }
}

const LONGEST_NAME: usize = 64;
/// Of an ARN and of a qualifier.
const LONGEST: usize = 256;

fn is_word(text: &str, longest: usize) -> bool {
    let ok = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    !text.is_empty() && text.len() <= longest && text.bytes().all(ok)
}

/// Takes a name of the path apart; `qualifier` is that of the query.
pub fn parse(text: &str, qualifier: Option<&str>) -> Result<Target, Refusal> {
    let (name, inner) = split(text).ok_or_else(|| Refusal::function_name(text))?;
    let outer = qualifier.filter(|q| !q.is_empty());
    if let (Some(inner), Some(outer)) = (inner, outer)
        && inner != outer
    {
        return Err(Refusal::parameter(
            "The derived qualifier from the function name does not match the specified qualifier.",
        ));
    }
    let version = match inner.or(outer) {
        None | Some("$LATEST") => None,
        Some(number) if number.bytes().all(|b| b.is_ascii_digit()) => {
            // A number that has no place in 64 bits is no version's.
            Some(number.parse().unwrap_or(u64::MAX))
        }
        // There are no aliases here.
        Some(alias) if is_word(alias, LONGEST) => return Err(Refusal::no_function(name, Some(alias))),
        Some(bad) => return Err(Refusal::qualifier(bad)),
    };
    Ok(Target { name: name.to_owned(), version })
}

/// The name, and the qualifier behind it.
fn split(text: &str) -> Option<(&str, Option<&str>)> {
    if text.len() > LONGEST {
        return None;
    }
    let mut parts: Vec<&str> = text.split(':').collect();
    if parts.first() == Some(&"arn") {
        let [_, partition, "lambda", region, account, "function", ..] = parts.as_slice() else { return None };
        if !partition.starts_with("aws") || !is_region(region) || !is_account(account) {
            return None;
        }
        parts.drain(..6);
    } else {
        for is_part in [is_region, is_account, |part: &str| part == "function"] {
            if parts.len() > 1 && parts.first().is_some_and(|p| is_part(p)) {
                parts.remove(0);
            }
        }
    }
    let (name, qualifier) = match parts.as_slice() {
        [name] => (*name, None),
        [name, qualifier] if !qualifier.is_empty() => (*name, Some(*qualifier)),
        _ => return None,
    };
    is_word(name, LONGEST_NAME).then_some((name, qualifier))
}

fn is_region(part: &str) -> bool {
    let mut words = part.split('-');
    let first = words.next().is_some_and(|w| w.len() == 2 && w.bytes().all(|b| b.is_ascii_lowercase()));
    let last = words.next_back().is_some_and(|w| w.len() == 1 && w.bytes().all(|b| b.is_ascii_digit()));
    let mut between = words.peekable();
    first
        && last
        && between.peek().is_some()
        && between.all(|w| !w.is_empty() && w.bytes().all(|b| b.is_ascii_lowercase()))
}

fn is_account(part: &str) -> bool {
    part.len() == 12 && part.bytes().all(|b| b.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_a_name_is_understood() {
        let target = |version| Target { name: "my-f_1".into(), version };
        for (text, qualifier, version) in [
            ("my-f_1", None, None),
            ("my-f_1", Some("$LATEST"), None),
            ("my-f_1", Some("7"), Some(7)),
            ("my-f_1:$LATEST", None, None),
            ("my-f_1:12", Some("12"), Some(12)),
            ("function:my-f_1", None, None),
            ("123456789012:function:my-f_1:3", None, Some(3)),
            ("us-east-1:123456789012:function:my-f_1", None, None),
            ("arn:aws:lambda:us-east-1:123456789012:function:my-f_1", Some("2"), Some(2)),
            ("arn:aws-us-gov:lambda:us-gov-west-1:123456789012:function:my-f_1:4", None, Some(4)),
        ] {
            assert_eq!(parse(text, qualifier).unwrap(), target(version), "{text} {qualifier:?}");
        }
    }

    #[test]
    fn what_is_no_name_is_refused() {
        let long = "x".repeat(65);
        for text in
            ["", ":", "a b", "../a", "a/b", "f:", "arn:aws:lambda:x:function:f", "a:b:c", "ü", long.as_str()]
        {
            assert_eq!(parse(text, None).unwrap_err().status, 400, "{text}");
        }
        assert_eq!(parse("f", Some("a b")).unwrap_err().status, 400);
        assert_eq!(parse("f:1", Some("2")).unwrap_err().status, 400);
        assert_eq!(parse("f", Some("prod")).unwrap_err().status, 404);
    }
}

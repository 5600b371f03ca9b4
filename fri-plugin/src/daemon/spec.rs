//! A function's description: from the protocol to the store with the node's defaults and bounds, and back.

use super::error::DaemonError;
use crate::config::Functions;
use crate::proto;
use crate::store::Spec;
use seedtree::runtime::Runtime;
use std::ops::RangeInclusive;

fn refuse(field: &'static str, reason: impl Into<String>) -> DaemonError {
    DaemonError::Spec { field, reason: reason.into() }
}

/// The runtime of a name, also of AWS Lambda's names with versions.
pub fn runtime_named(name: &str) -> Result<Runtime, DaemonError> {
    let base = name.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.' || c == 'x');
    let known = match base {
        "nodejs" => Some(Runtime::Node),
        "provided.al" => Some(Runtime::Provided),
        base => Runtime::named(base),
    };
    let unknown = || format!("'{name}' is none of python, node, provided, or AWS Lambda's names for them");
    known.ok_or_else(|| refuse("runtime", unknown()))
}

/// A number in its bounds; 0 takes the default.
fn bounded(
    field: &'static str,
    n: u64,
    default: u64,
    allowed: RangeInclusive<u64>,
) -> Result<u64, DaemonError> {
    let n = if n == 0 { default } else { n };
    let outside = || format!("{n} is not between {} and {}", allowed.start(), allowed.end());
    if allowed.contains(&n) { Ok(n) } else { Err(refuse(field, outside())) }
}

/// A number of things, which may be 0.
fn count(field: &'static str, n: Option<u32>, default: usize, most: usize) -> Result<usize, DaemonError> {
    let n = n.map_or(default, size);
    if n <= most { Ok(n) } else { Err(refuse(field, format!("{n} is more than {most}"))) }
}

fn size(n: u32) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}

fn wide(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}

fn narrow(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

/// Least memory of an instance, bytes.
const LEAST_MEMORY: u64 = 16 << 20;

/// Checks a description, and fills in what it leaves open.
pub fn checked(spec: &proto::FunctionSpec, limits: &Functions) -> Result<Spec, DaemonError> {
    crate::name::check_function(&spec.name).map_err(|e| refuse("name", e.to_string()))?;
    let runtime = runtime_named(&spec.runtime)?;
    let text = |field, text: &str, most: usize| {
        let fine = text.len() <= most && !text.contains('\0');
        if fine {
            Ok(text.to_owned())
        } else {
            Err(refuse(field, format!("at most {most} bytes, none of them 0")))
        }
    };
    let env_bytes: usize = spec.env.iter().map(|(n, v)| n.len() + v.len()).sum();
    if wide(env_bytes) > limits.env_bytes {
        return Err(refuse("env", format!("{env_bytes} bytes are more than {}", limits.env_bytes)));
    }
    for (name, value) in &spec.env {
        if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
            return Err(refuse(
                "env",
                format!("'{}' is no name or value of an environment", name.escape_debug()),
            ));
        }
    }
    let warm = if spec.warm_event.is_empty() {
        None
    } else {
        let text = String::from_utf8(spec.warm_event.to_vec());
        let text = text.map_err(|_| refuse("warm_event", "it is not UTF-8"))?;
        serde_json::from_str::<serde::de::IgnoredAny>(&text)
            .map_err(|e| refuse("warm_event", format!("it is not JSON: {e}")))?;
        Some(text)
    };
    let cpus = bounded("cpus", spec.cpus.into(), wide(limits.cpus), 1..=wide(limits.max_cpus))?;
    let concurrency = bounded(
        "concurrency",
        spec.concurrency.into(),
        wide(limits.concurrency),
        1..=wide(limits.max_concurrency),
    )?;
    let keep_alive = if spec.keep_alive == 0 { None } else { Some(spec.keep_alive) };
    Ok(Spec {
        runtime,
        handler: text("handler", &spec.handler, 128)?,
        memory: bounded("memory", spec.memory_bytes, limits.memory, LEAST_MEMORY..=limits.max_memory)?,
        cpus: usize::try_from(cpus).unwrap_or(1),
        timeout_ms: bounded("timeout", spec.timeout_ms, limits.timeout_ms, 1..=limits.max_timeout_ms)?,
        env: spec.env.clone().into_iter().collect(),
        spares: count("spares", spec.spares, limits.spares, limits.max_spares)?,
        concurrency: usize::try_from(concurrency).unwrap_or(1),
        queue: count("queue", spec.queue, limits.queue, limits.max_queue)?,
        keep_alive: count("keep_alive", keep_alive, limits.keep_alive, limits.max_keep_alive)?,
        warm,
        description: text("description", &spec.description, 256)?,
    })
}

/// As the protocol has it.
pub fn described(name: &str, spec: &Spec) -> proto::FunctionSpec {
    proto::FunctionSpec {
        name: name.to_owned(),
        runtime: spec.runtime.name().to_owned(),
        handler: spec.handler.clone(),
        memory_bytes: spec.memory,
        cpus: narrow(spec.cpus),
        timeout_ms: spec.timeout_ms,
        env: spec.env.clone().into_iter().collect(),
        spares: Some(narrow(spec.spares)),
        concurrency: narrow(spec.concurrency),
        queue: Some(narrow(spec.queue)),
        keep_alive: narrow(spec.keep_alive),
        warm_event: spec.warm.clone().unwrap_or_default().into_bytes().into(),
        description: spec.description.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> proto::FunctionSpec {
        proto::FunctionSpec {
            name: "f".into(),
            runtime: "python3.12".into(),
            handler: "app.handler".into(),
            ..Default::default()
        }
    }

    fn refused(change: impl FnOnce(&mut proto::FunctionSpec)) -> &'static str {
        let mut spec = spec();
        change(&mut spec);
        match checked(&spec, &Functions::default()) {
            Err(DaemonError::Spec { field, .. }) => field,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_is_left_open_takes_the_defaults_and_comes_back() {
        let limits = Functions::default();
        let checked = checked(&spec(), &limits).unwrap();
        assert_eq!((checked.memory, checked.timeout_ms), (limits.memory, limits.timeout_ms));
        assert_eq!((checked.spares, checked.concurrency), (limits.spares, limits.concurrency));
        let described = described("f", &checked);
        assert_eq!(super::checked(&described, &limits).unwrap(), checked);
    }

    #[test]
    fn what_is_out_of_bounds_is_named() {
        assert_eq!(refused(|s| s.name = "../f".into()), "name");
        assert_eq!(refused(|s| s.name = String::new()), "name");
        assert_eq!(refused(|s| s.name = "python".into()), "name");
        assert_eq!(refused(|s| s.runtime = "cobol".into()), "runtime");
        assert_eq!(refused(|s| s.memory_bytes = 1), "memory");
        assert_eq!(refused(|s| s.memory_bytes = u64::MAX), "memory");
        assert_eq!(refused(|s| s.cpus = 1000), "cpus");
        assert_eq!(refused(|s| s.timeout_ms = u64::MAX), "timeout");
        assert_eq!(refused(|s| s.spares = Some(100_000)), "spares");
        assert_eq!(refused(|s| s.concurrency = u32::MAX), "concurrency");
        assert_eq!(refused(|s| s.queue = Some(u32::MAX)), "queue");
        assert_eq!(refused(|s| s.keep_alive = u32::MAX), "keep_alive");
        assert_eq!(refused(|s| s.handler = "x".repeat(200)), "handler");
        assert_eq!(refused(|s| s.warm_event = vec![b'{'].into()), "warm_event");
        assert_eq!(refused(|s| s.warm_event = vec![0xff].into()), "warm_event");
        for name in ["", "A=B", "A\0"] {
            assert_eq!(refused(|s| drop(s.env.insert(name.into(), "v".into()))), "env", "{name:?}");
        }
        assert_eq!(refused(|s| drop(s.env.insert("A".into(), "v".repeat(10_000)))), "env");
    }

    #[test]
    fn runtimes_have_the_names_of_aws_lambda_too() {
        for (name, runtime) in [
            ("python", Runtime::Python),
            ("python3.12", Runtime::Python),
            ("nodejs20.x", Runtime::Node),
            ("node", Runtime::Node),
            ("provided", Runtime::Provided),
            ("provided.al2023", Runtime::Provided),
        ] {
            assert_eq!(runtime_named(name).unwrap(), runtime, "{name}");
        }
        for name in ["", "java21", "python.", "3.12"] {
            // "python." is what is left of a version; it is taken for python.
            assert_eq!(runtime_named(name).is_ok(), name == "python.", "{name}");
        }
    }
}

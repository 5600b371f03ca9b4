//! What a request came to, as AWS Lambda tells it.

use super::Gateway;
use super::errors::{FunctionFailure, Refusal};
use super::lambda::Asking;
use super::log::Report;
use crate::daemon::invoke::Invoked;
use axum::body::Bytes;
use seedtree::runtime::Reply;
use std::time::Duration;

/// AWS Lambda's word for every error of a function.
pub const UNHANDLED: &str = "Unhandled";

/// What a function answered, or how it failed.
#[derive(Debug)]
pub struct Outcome {
    /// Its answer, or the description of its error.
    pub body: Bytes,
    /// Whether it failed.
    pub failed: bool,
    /// Number of the version that served.
    pub version: u64,
    /// How its process failed, where it did not describe its error itself.
    failure: Option<FunctionFailure>,
    duration: Duration,
    printed: Vec<u8>,
}

impl Outcome {
    /// Of a request that is over. What is not the function's doing is refused. The request's trace ends here.
    pub fn of(
        gateway: &Gateway,
        asking: &mut Asking,
        id: &str,
        invoked: Invoked,
    ) -> Result<Outcome, Refusal> {
        let Invoked { result, version, log_tail: printed } = invoked;
        let name = &asking.target.name;
        gateway.daemon.trace(asking.marks.take(), name, id, &result);
        let mut duration = asking.started.elapsed();
        let (body, failed, failure) = match result {
            Ok(served) => {
                duration = Duration::from_nanos(served.total);
                match served.reply {
                    Reply::Error(body) => (body.into(), true, None),
                    Reply::Result(body) => (body.into(), false, None),
                    Reply::Imported | Reply::Malformed => {
                        return Err(Refusal::new(500, "ServiceException", "The runtime gave no answer."));
                    }
                }
            }
            Err(error) => match (FunctionFailure::of(&error), error.function_says()) {
                (_, Some(says)) => (Bytes::copy_from_slice(says), true, None),
                (Some(how), None) => (how.json(id).into(), true, Some(how)),
                (None, None) => return Err(Refusal::of_daemon(&error, name)),
            },
        };
        Ok(Outcome { body, failed, version, failure, duration, printed })
    }

    /// The tail of the log, in base64.
    pub fn log_result(&self, gateway: &Gateway, asking: &Asking, id: &str) -> String {
        let memory = gateway.daemon.node().function(&asking.target.name).map_or(0, |v| v.spec.memory >> 20);
        let report = Report {
            request_id: id,
            version: &asking.target.executed_version(),
            duration: self.duration,
            memory,
            failure: self.failure.as_ref(),
            error: (self.failed && self.failure.is_none()).then_some(&self.body[..]),
        };
        report.tail(&self.printed)
    }
}

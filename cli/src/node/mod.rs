//! Talking to coppiced: connecting, uploading, and showing what comes back.

pub mod pack;
pub mod show;
pub mod upload;

use fri_plugin::fri::client::{Client, ClientError};
use fri_plugin::proto;
use serde_json::json;
use std::path::PathBuf;

/// Exit status where the daemon refused, or the function failed.
pub const EXIT_REFUSED: u8 = 1;

/// Where the daemon is.
#[derive(Debug, clap::Args)]
pub struct Socket {
    /// Socket of coppiced (gRPC)
    #[arg(long, value_name = "PATH", env = "COPPICE_SOCKET", default_value = "/run/coppice/fri.grpc.sock")]
    socket: PathBuf,
}

impl Socket {
    /// Connects and does the work; the result is the exit status. What the daemon refuses is reported here.
    pub fn run(
        &self,
        as_json: bool,
        work: impl AsyncFnOnce(Client) -> anyhow::Result<u8>,
    ) -> anyhow::Result<u8> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let done = runtime.block_on(async { work(Client::connect(&self.socket).await?).await });
        let error = match done {
            Ok(status) => return Ok(status),
            Err(error) => error,
        };
        let Some(ClientError::Refused(refused)) = error.downcast_ref() else { return Err(error) };
        if as_json {
            say!("{}", json!({"ok": false, "error": described(refused)}));
        } else {
            report(refused);
        }
        Ok(EXIT_REFUSED)
    }
}

/// What the daemon refused, for programs.
fn described(refused: &proto::Error) -> serde_json::Value {
    let function: serde_json::Value = serde_json::from_slice(&refused.function).unwrap_or_default();
    json!({"code": refused.code, "message": refused.message, "function": function})
}

/// The same for people.
fn report(refused: &proto::Error) {
    if !refused.function.is_empty() {
        crate::failure::trace(&refused.function);
    }
    tell!("coppice: {} [{}]", refused.message, refused.code);
}

/// Does something to each of some things, and says so: `ended` is the word for it. What is refused of one does not keep it from the others.
pub async fn each<T>(
    things: &[String],
    as_json: bool,
    ended: &str,
    mut act: impl AsyncFnMut(String) -> Result<T, tonic::Status>,
) -> anyhow::Result<u8> {
    let (mut done, mut errors) = (Vec::new(), Vec::new());
    for thing in things {
        match act(thing.clone()).await.map_err(refused) {
            Ok(_) => {
                if !as_json {
                    say!("{thing} is {ended}");
                }
                done.push(thing);
            }
            Err(ClientError::Refused(error)) => {
                if !as_json {
                    report(&error);
                }
                let mut error = described(&error);
                error["name"] = json!(thing);
                errors.push(error);
            }
            Err(error) => return Err(error.into()),
        }
    }
    let Some(first) = errors.first() else {
        if as_json {
            say!("{}", json!({"ok": true, ended: done}));
        }
        return Ok(0);
    };
    if as_json {
        say!("{}", json!({"ok": false, ended: done, "error": first, "errors": errors}));
    }
    Ok(EXIT_REFUSED)
}

/// The error of a call, for `?`.
pub fn refused(status: tonic::Status) -> ClientError {
    status.into()
}

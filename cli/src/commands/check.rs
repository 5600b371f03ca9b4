//! `coppice check`: the self-test of this host's KVM.

use serde_json::json;

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  coppice check --json")]
pub struct Args {
    /// Print one line of JSON
    #[arg(long)]
    json: bool,
}

/// Runs the self-test. The status is 0 when every check passed, 1 when not.
pub fn run(args: &Args) -> anyhow::Result<u8> {
    let report = vmm::selftest::run();
    let (checks, facts, lacks) = (report.checks(), report.facts(), report.lacks());
    let ok = checks.iter().all(|c| c.result.is_ok());
    if args.json {
        let checks: Vec<_> = checks
            .iter()
            .map(|c| match &c.result {
                Ok(note) => json!({"name": c.name, "ok": true, "note": note}),
                Err(error) => json!({"name": c.name, "ok": false, "error": error}),
            })
            .collect();
        let facts: serde_json::Map<String, serde_json::Value> =
            facts.iter().map(|(k, v)| (k.clone(), json!(v))).collect();
        println!("{}", json!({"ok": ok, "checks": checks, "facts": facts, "lacks": lacks}));
    } else {
        for check in checks {
            match &check.result {
                Ok(note) => println!("ok    {:<24} {note}", check.name),
                Err(error) => println!("FAIL  {:<24} {error}", check.name),
            }
        }
        for (name, value) in facts {
            println!("      {name:<24} {value}");
        }
        for lack in lacks {
            println!("note  {lack}");
        }
    }
    Ok(u8::from(!ok))
}

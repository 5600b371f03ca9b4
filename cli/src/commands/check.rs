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
    let report = vmm::selftest::run()?;
    let facts = [
        ("nested paging (EPT or NPT)", yes(report.nested_paging)),
        ("KVM_PRE_FAULT_MEMORY", yes(report.pre_fault)),
        ("XCR0", format!("{:#x}", report.xcr0)),
        ("TSC for the vDSO", report.tsc_khz.map_or_else(|| "not usable".into(), |khz| format!("{khz} kHz"))),
    ];
    if args.json {
        let checks: Vec<_> = report
            .checks
            .iter()
            .map(|(name, result)| match result {
                Ok(note) => json!({"name": name, "ok": true, "note": note}),
                Err(error) => json!({"name": name, "ok": false, "error": error}),
            })
            .collect();
        let facts: serde_json::Map<String, serde_json::Value> =
            facts.iter().map(|(k, v)| ((*k).to_owned(), json!(v))).collect();
        println!("{}", json!({"ok": report.passed(), "checks": checks, "facts": facts}));
    } else {
        for (name, result) in &report.checks {
            match result {
                Ok(note) => println!("ok    {name:<28} {note}"),
                Err(error) => println!("FAIL  {name:<28} {error}"),
            }
        }
        for (name, value) in facts {
            println!("      {name:<28} {value}");
        }
    }
    Ok(u8::from(!report.passed()))
}

fn yes(there: bool) -> String {
    if there { "yes" } else { "no" }.into()
}

//! `coppice check`: the self-test of this host's KVM, and what the host lacks.

use serde_json::json;
use std::path::Path;

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  coppice check --json")]
pub struct Args {
    /// Print one line of JSON
    #[arg(long)]
    json: bool,
}

/// Runs the self-test. The status is 0 when every check passed, 1 when not. What is merely lacking does not count as failed.
pub fn run(args: &Args) -> anyhow::Result<u8> {
    let mut lacks = of_the_host(Path::new("/"), &std::env::var_os("PATH").unwrap_or_default());
    let report = match vmm::selftest::run() {
        Ok(report) => report,
        Err(error) => {
            let error = format!("{:#}", anyhow::Error::new(error));
            if args.json {
                say!("{}", json!({"ok": false, "error": error, "checks": [], "lacks": lacks}));
                return Ok(1);
            }
            anyhow::bail!(error);
        }
    };
    lacks.splice(0..0, report.lacks.iter().cloned());
    if let Err(error) = crate::limits::open_files() {
        lacks.push(format!("open files: {error}"));
    }
    let facts = [
        ("nested paging (EPT or NPT)", yes(report.nested_paging)),
        ("KVM_PRE_FAULT_MEMORY", yes(report.pre_fault)),
        ("XCR0", format!("{:#x}", report.xcr0)),
        ("TSC for the vDSO", report.tsc_khz.map_or_else(|| "not usable".into(), |khz| format!("{khz} kHz"))),
        ("rdtscp tells the vCPU", yes(report.facts.tsc_aux)),
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
        say!("{}", json!({"ok": report.passed(), "checks": checks, "facts": facts, "lacks": lacks}));
    } else {
        for (name, result) in &report.checks {
            match result {
                Ok(note) => say!("ok    {name:<28} {note}"),
                Err(error) => say!("FAIL  {name:<28} {error}"),
            }
        }
        for (name, value) in facts {
            say!("      {name:<28} {value}");
        }
        for lack in &lacks {
            say!("lacks {lack}");
        }
    }
    Ok(u8::from(!report.passed()))
}

fn yes(there: bool) -> String {
    if there { "yes" } else { "no" }.into()
}

/// What the host below `root` lacks besides KVM, one sentence each: what, and what that means.
fn of_the_host(root: &Path, path: &std::ffi::OsStr) -> Vec<String> {
    let mut lacks = Vec::new();
    let read = |name: &str| std::fs::read_to_string(root.join(name)).unwrap_or_default();
    let controllers = read("sys/fs/cgroup/cgroup.controllers");
    let missing: Vec<_> = ["cpu", "memory", "pids"]
        .into_iter()
        .filter(|wanted| !controllers.split_ascii_whitespace().any(|c| c == *wanted))
        .collect();
    if !missing.is_empty() {
        lacks.push(format!(
            "cgroup v2 with the controllers {}: cgroup v1 is used where it is there, and a fork joins its cgroup a little later",
            missing.join(", ")
        ));
    }
    let number = |name: &str| read(name).trim().parse::<u64>().ok();
    let none = number("proc/sys/user/max_user_namespaces") == Some(0)
        || !root.join("proc/self/ns/user").exists()
        || number("proc/sys/kernel/unprivileged_userns_clone") == Some(0)
        || number("proc/sys/kernel/apparmor_restrict_unprivileged_userns") == Some(1);
    if none {
        lacks.push(
            "user namespaces for users without privilege: sandbox processes can only be jailed by root"
                .into(),
        );
    }
    for (program, means) in [
        ("python3", "`coppice demo` has no interpreter to run"),
        ("runsc", "`coppice demo` leaves out the comparison with gVisor"),
        ("runc", "`coppice demo` leaves out the comparison with a container"),
    ] {
        if !std::env::split_paths(path).any(|dir| dir.join(program).is_file()) {
            lacks.push(format!("{program} in PATH: {means}"));
        }
    }
    lacks
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{create_dir_all, write};

    fn host(controllers: &str, namespaces: &str) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for d in ["sys/fs/cgroup", "proc/sys/user", "proc/self/ns", "bin"] {
            create_dir_all(dir.path().join(d)).unwrap();
        }
        write(dir.path().join("sys/fs/cgroup/cgroup.controllers"), controllers).unwrap();
        write(dir.path().join("proc/sys/user/max_user_namespaces"), namespaces).unwrap();
        write(dir.path().join("proc/self/ns/user"), "").unwrap();
        for program in ["python3", "runsc", "runc"] {
            write(dir.path().join("bin").join(program), "").unwrap();
        }
        dir
    }

    #[test]
    fn a_complete_host_lacks_nothing() {
        let dir = host("cpuset cpu io memory pids\n", "15000\n");
        assert_eq!(of_the_host(dir.path(), dir.path().join("bin").as_os_str()), Vec::<String>::new());
    }

    #[test]
    fn each_lack_is_one_sentence_that_names_it() {
        let dir = host("hugetlb\n", "0\n");
        std::fs::remove_file(dir.path().join("bin/runsc")).unwrap();
        let lacks = of_the_host(dir.path(), dir.path().join("bin").as_os_str());
        assert_eq!(lacks.len(), 3, "{lacks:#?}");
        assert!(lacks[0].contains("cpu, memory, pids"));
        assert!(lacks[1].starts_with("user namespaces"));
        assert!(lacks[2].starts_with("runsc"));
        assert_eq!(of_the_host(dir.path(), "".as_ref()).len(), 5);
    }
}

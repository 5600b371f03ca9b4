//! Tables and texts of what the daemon tells.

use crate::report::table;
use fri_plugin::proto;
use std::io::Write;

/// Bytes for people.
pub fn bytes(n: u64) -> String {
    match n {
        0 => "-".into(),
        1..0x40_0000 => format!("{} KiB", n.div_ceil(1 << 10)),
        _ => format!("{} MiB", n.div_ceil(1 << 20)),
    }
}

/// A time span for people, from ns.
pub fn span(ns: u64) -> String {
    let seconds = ns / 1_000_000_000;
    match seconds {
        0 => format!("{} ms", ns / 1_000_000),
        1..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} d", seconds / 86_400),
    }
}

/// Functions, a line each.
pub fn functions(functions: &[proto::Function]) -> String {
    let rows: Vec<Vec<String>> = functions
        .iter()
        .map(|function| {
            let (spec, counts) =
                (function.spec.clone().unwrap_or_default(), function.counts.unwrap_or_default());
            vec![
                spec.name,
                function.version.to_string(),
                function.state.clone(),
                spec.runtime,
                counts.requests.to_string(),
                counts.running.to_string(),
                counts.waiting.to_string(),
                counts.spares.to_string(),
                counts.kept.to_string(),
                counts.errors.to_string(),
                counts.refused.to_string(),
            ]
        })
        .collect();
    let header = [
        "function", "version", "state", "runtime", "requests", "running", "waiting", "spares", "kept",
        "errors", "refused",
    ];
    table(&header, &rows)
}

/// Seeds, a line each.
pub fn seeds(seeds: &[proto::Seed]) -> String {
    let rows: Vec<Vec<String>> = seeds
        .iter()
        .map(|seed| {
            let memory = seed.memory.unwrap_or_default();
            vec![
                seed.name.clone(),
                seed.level.to_string(),
                if seed.parent.is_empty() { "-".into() } else { seed.parent.clone() },
                seed.pid.to_string(),
                seed.forks.to_string(),
                seed.queued.to_string(),
                span(seed.age_ns),
                bytes(memory.private_bytes),
                bytes(memory.shared_bytes),
            ]
        })
        .collect();
    table(&["seed", "level", "parent", "pid", "forks", "queued", "age", "own", "shared"], &rows)
}

/// Seeds as a tree, root first.
pub fn tree(seeds: &[proto::Seed]) -> String {
    let mut out = String::new();
    let roots: Vec<&proto::Seed> =
        seeds.iter().filter(|s| !seeds.iter().any(|p| p.name == s.parent && p.level < s.level)).collect();
    for root in roots {
        branch(&mut out, seeds, root, "", "");
    }
    out
}

fn branch(out: &mut String, seeds: &[proto::Seed], seed: &proto::Seed, own: &str, below: &str) {
    let memory = seed.memory.unwrap_or_default();
    out.push_str(&format!(
        "{own}L{} {}  pid {}, {} forks, own {}, shared {}\n",
        seed.level,
        seed.name,
        seed.pid,
        seed.forks,
        bytes(memory.private_bytes),
        bytes(memory.shared_bytes)
    ));
    let children: Vec<&proto::Seed> =
        seeds.iter().filter(|s| s.parent == seed.name && s.level > seed.level).collect();
    for (n, child) in children.iter().enumerate() {
        let (own, more) = if n + 1 == children.len() { ("└─ ", "   ") } else { ("├─ ", "│  ") };
        branch(out, seeds, child, &format!("{below}{own}"), &format!("{below}{more}"));
    }
}

/// Instances, a line each.
pub fn instances(instances: &[proto::Instance]) -> String {
    let rows: Vec<Vec<String>> = instances
        .iter()
        .map(|i| {
            let level = format!("L{}", i.level);
            vec![i.id.clone(), i.function.clone(), i.state.clone(), level, i.pid.to_string(), span(i.age_ns)]
        })
        .collect();
    table(&["instance", "function", "state", "from", "pid", "since"], &rows)
}

/// The node in a few lines.
pub fn status(status: &proto::StatusResponse) -> String {
    let memory = status.memory.unwrap_or_default();
    let budget = match status.memory_budget_bytes {
        0 => "no budget".to_owned(),
        n => format!("budget {}", bytes(n)),
    };
    format!(
        "coppiced {}, {}, up {}\n{} functions, {} seeds, {} instances, {} forks so far\nmemory {} (PSS), {budget}",
        status.version,
        status.state,
        span(status.uptime_ns),
        status.functions,
        status.seeds,
        status.instances,
        status.forks,
        bytes(memory.pss_bytes)
    )
}

/// A line of a function's output, on stdout.
pub fn log_line(line: &proto::LogLine, as_json: bool, with_function: bool) -> anyhow::Result<()> {
    if as_json {
        say!("{}", serde_json::to_string(line)?);
    } else {
        let function = if with_function { format!("{} ", line.function) } else { String::new() };
        say!(
            "{} {function}{} {}",
            clock(line.time_unix_ns),
            line.request_id,
            line.text.trim_end_matches('\n')
        );
        std::io::stdout().flush()?;
    }
    Ok(())
}

/// Time of day, UTC.
fn clock(unix_ns: u64) -> String {
    let ms = unix_ns / 1_000_000 % 86_400_000;
    let (s, ms) = (ms / 1000, ms % 1000);
    format!("{:02}:{:02}:{:02}.{ms:03}", s / 3600, s / 60 % 60, s % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_and_sizes_are_short() {
        assert_eq!((span(5_000_000), span(90_000_000_000)), ("5 ms".into(), "90 s".into()));
        assert_eq!((span(3_600_000_000_000), span(u64::MAX)), ("60 min".into(), "213503 d".into()));
        assert_eq!((bytes(0), bytes(1), bytes(64 << 20)), ("-".into(), "1 KiB".into(), "64 MiB".into()));
        assert_eq!(clock(3_723_004_000_000), "01:02:03.004");
    }

    #[test]
    fn the_tree_shows_every_seed_below_its_parent() {
        let seed = |name: &str, level, parent: &str| proto::Seed {
            name: name.into(),
            level,
            parent: parent.into(),
            ..Default::default()
        };
        let seeds = [
            seed("os", 0, ""),
            seed("python", 1, "os"),
            seed("node", 1, "os"),
            seed("f", 2, "python"),
            seed("g", 2, "python"),
            seed("lost", 2, "gone"),
        ];
        let text = tree(&seeds);
        let names: Vec<&str> =
            text.lines().map(|l| l.split("  ").find(|w| w.contains('L')).unwrap().trim()).collect();
        assert_eq!(names, ["L0 os", "├─ L1 python", "├─ L2 f", "└─ L2 g", "└─ L1 node", "L2 lost"]);
    }
}

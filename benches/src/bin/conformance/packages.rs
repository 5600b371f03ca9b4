//! Debian packages unpacked into a directory: node and its tests of one version, whatever the host has installed.
//!
//! apt runs with lists, cache and status of its own below the folder, so that the host's are neither read nor changed, and needs no rights.

use anyhow::{Context, bail};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What node's tests use besides node.
const PACKAGES: [&str; 13] = [
    "nodejs",
    "dash",
    "bash",
    "coreutils",
    "openssl",
    "ca-certificates",
    "procps",
    "base-files",
    "netbase",
    "findutils",
    "grep",
    "sed",
    "python3-minimal",
];

/// A root with Debian's node and, in /test, the tests of the same source package. Made once; remade when its `version` file is gone.
pub fn node_root(folder: &Path) -> anyhow::Result<PathBuf> {
    let root = folder.join("node-root");
    if root.join("version").is_file() {
        return Ok(root);
    }
    eprintln!("conformance: fetching Debian's nodejs and its tests (about 130 MB) into {}", root.display());
    let apt = Apt::new(&folder.join("apt"))?;
    apt.get(&["update", "-qq"])?;
    let mut install = vec!["install", "--yes", "-qq", "--no-install-recommends", "--download-only"];
    install.extend(PACKAGES);
    apt.get(&install)?;
    let fresh = folder.join("node-root.new");
    if fresh.exists() {
        fs::remove_dir_all(&fresh).with_context(|| format!("cannot remove {}", fresh.display()))?;
    }
    fs::create_dir_all(fresh.join("test"))?;
    let mut version = None;
    for package in files(&apt.folder.join("cache/archives"), ".deb")? {
        run(Command::new("dpkg-deb").arg("--extract").arg(&package).arg(&fresh))?;
        let name = package.file_name().unwrap_or_default().to_string_lossy().into_owned();
        version =
            version.or(name.strip_prefix("nodejs_").and_then(|n| n.strip_suffix(".deb")).map(str::to_owned));
    }
    let Some(version) = version else { bail!("apt-get did not fetch nodejs into {}", apt.folder.display()) };
    apt.get(&["source", "-qq", "--download-only", "--tar-only", "nodejs"])?;
    let tarballs = files(&apt.folder, "")?;
    let tarball = tarballs.iter().find(|p| {
        let name = p.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with("nodejs_") && name.contains(".orig.tar.")
    });
    let tarball = tarball
        .with_context(|| format!("apt-get did not fetch node's source into {}", apt.folder.display()))?;
    // `*` stops at a slash: other directories of that name are no tests of node's.
    run(Command::new("tar")
        .arg("--directory")
        .arg(fresh.join("test"))
        .args(["--extract", "--strip-components=2", "--file"])
        .arg(tarball)
        .args(["--wildcards", "--no-wildcards-match-slash", "*/test"]))?;
    if !fresh.join("test/parallel").is_dir() {
        bail!("{} holds no test/parallel", tarball.display());
    }
    accounts(&fresh)?;
    fs::write(fresh.join("version"), format!("nodejs {version}\n"))?;
    if root.exists() {
        fs::remove_dir_all(&root).with_context(|| format!("cannot remove {}", root.display()))?;
    }
    fs::rename(&fresh, &root)?;
    fs::remove_dir_all(&apt.folder)?;
    Ok(root)
}

/// What the packages' scripts would have made.
fn accounts(root: &Path) -> std::io::Result<()> {
    let etc = root.join("etc");
    fs::write(
        etc.join("passwd"),
        "root:x:0:0:root:/root:/bin/bash\nnobody:x:65534:65534:nobody:/nonexistent:/bin/false\n",
    )?;
    fs::write(etc.join("group"), "root:x:0:\nnogroup:x:65534:\n")?;
    fs::write(etc.join("hosts"), "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n")?;
    fs::write(
        etc.join("nsswitch.conf"),
        "passwd: files\ngroup: files\nhosts: files\nservices: files\nprotocols: files\n",
    )
}

/// The files of a directory whose names end so, sorted.
fn files(dir: &Path, end: &str) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))? {
        let path = entry?.path();
        if path.is_file() && path.to_string_lossy().ends_with(end) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// Runs a command that must succeed.
fn run(command: &mut Command) -> anyhow::Result<()> {
    let output = command.stdin(Stdio::null()).output();
    let output =
        output.with_context(|| format!("cannot start {}", command.get_program().to_string_lossy()))?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        bail!("{} failed ({}): {}", command.get_program().to_string_lossy(), output.status, text.trim());
    }
    Ok(())
}

/// apt-get with a folder of its own.
struct Apt {
    folder: PathBuf,
}

impl Apt {
    fn new(folder: &Path) -> anyhow::Result<Apt> {
        for dir in ["lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(folder.join(dir))
                .with_context(|| format!("cannot make {}", folder.display()))?;
        }
        fs::write(folder.join("status"), "")?;
        let release = fs::read_to_string("/etc/os-release").context("cannot read /etc/os-release")?;
        fs::write(folder.join("sources.list"), sources(&release)?)?;
        Ok(Apt { folder: folder.canonicalize()? })
    }

    fn get(&self, args: &[&str]) -> anyhow::Result<()> {
        let mut command = Command::new("apt-get");
        command.env("DEBIAN_FRONTEND", "noninteractive").current_dir(&self.folder);
        let option = |name: &str, file: &str| format!("{name}={}", self.folder.join(file).display());
        for option in [
            option("Dir::Etc::SourceList", "sources.list"),
            "Dir::Etc::SourceParts=/dev/null".to_owned(),
            option("Dir::State::Lists", "lists"),
            option("Dir::State::Status", "status"),
            option("Dir::Cache", "cache"),
            "APT::Sandbox::User=".to_owned(),
        ] {
            command.arg("-o").arg(option);
        }
        run(command.args(args))
    }
}

/// The package sources of this release of Debian, with source packages.
fn sources(release: &str) -> anyhow::Result<String> {
    let field = |name: &str| {
        let line = release.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix('='));
        line.map(|value| value.trim_matches('"').to_owned())
    };
    if field("ID").as_deref() != Some("debian") {
        bail!(
            "node's tests come with Debian's source package, and this is not Debian: run the suites `cpython stress` alone"
        );
    }
    let name = field("VERSION_CODENAME").context("/etc/os-release names no release of Debian")?;
    let mut text = String::new();
    for kind in ["deb", "deb-src"] {
        let signed = "[signed-by=/usr/share/keyrings/debian-archive-keyring.gpg]";
        text += &format!("{kind} {signed} http://deb.debian.org/debian {name} main\n");
        text += &format!("{kind} {signed} http://deb.debian.org/debian-security {name}-security main\n");
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_follow_the_release_and_another_distribution_is_refused() {
        let text = sources("ID=debian\nVERSION_CODENAME=trixie\n").unwrap();
        assert!(text.contains("debian trixie main") && text.contains("deb-src"));
        assert!(sources("ID=fedora\n").is_err());
    }
}

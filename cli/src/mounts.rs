//! What `--mount`, `--volume` and `--tmpfs` say, in docker's words, and mounting it.

use anyhow::{Context, anyhow, bail};
use guest::kernel::Kernel;
use guest::vfs::mount::{RDONLY, TmpfsOptions};
use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

/// One mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mount {
    /// A directory of the host.
    Bind {
        /// The directory.
        source: PathBuf,
        /// Where the guest sees it.
        target: PathBuf,
        /// The guest cannot change it.
        read_only: bool,
    },
    /// A file system in memory.
    Tmpfs {
        /// Where the guest sees it.
        target: PathBuf,
        /// Bytes; `None` is half of the memory limit.
        size: Option<u64>,
        /// Mode of its root.
        mode: u32,
    },
}

impl Mount {
    fn target(&self) -> &Path {
        match self {
            Mount::Bind { target, .. } | Mount::Tmpfs { target, .. } => target,
        }
    }
}

/// The options with which `run` mounts.
#[derive(Debug, clap::Args)]
pub struct MountArgs {
    /// Mount a directory of the host (type=bind,src=DIR,dst=DIR,ro) or memory (type=tmpfs,dst=DIR,size=64m,mode=1777; size and mode may be left out)
    #[arg(long, value_name = "SPEC", value_parser = parse_mount)]
    mount: Vec<Mount>,
    /// Mount a directory of the host: HOST:GUEST, or HOST:GUEST:ro to keep the guest from changing it
    #[arg(long, short = 'v', value_name = "HOST:GUEST[:ro]", value_parser = parse_volume)]
    volume: Vec<Mount>,
    /// Mount memory: GUEST, or GUEST:size=64m,mode=1777
    #[arg(long, value_name = "GUEST[:OPTIONS]", value_parser = parse_tmpfs)]
    tmpfs: Vec<Mount>,
}

impl MountArgs {
    /// Mounts everything in the guest, outer directories first.
    pub fn apply(&self, kernel: &mut Kernel) -> anyhow::Result<()> {
        let mut all: BTreeMap<PathBuf, &Mount> = BTreeMap::new();
        for mount in self.mount.iter().chain(&self.volume).chain(&self.tmpfs) {
            let target: PathBuf = mount.target().components().collect();
            if all.insert(target, mount).is_some() {
                bail!("{} is mounted on twice: remove one of the two", mount.target().display());
            }
        }
        for mount in all.into_values() {
            let target = mount.target();
            let at = kernel
                .mount_point(target.as_os_str().as_bytes())
                .map_err(|e| anyhow!("cannot mount on {}: it cannot be made: {e}", target.display()))?;
            match mount {
                Mount::Bind { source, read_only, .. } => {
                    let dir = open(source)?;
                    let flags = if *read_only { RDONLY } else { 0 };
                    kernel.mount_host(at, source.as_os_str().as_bytes(), flags, dir)
                }
                Mount::Tmpfs { size, mode, .. } => {
                    let options = TmpfsOptions { size: *size, mode: *mode, ..TmpfsOptions::default() };
                    kernel.mount_tmpfs(at, b"tmpfs", 0, &options)
                }
            }
            .map_err(|e| anyhow!("cannot mount on {}: {e}", target.display()))?;
        }
        Ok(())
    }
}

fn open(source: &Path) -> anyhow::Result<std::os::fd::OwnedFd> {
    let dir = std::fs::File::open(source)
        .with_context(|| format!("cannot mount {}: it cannot be opened on the host", source.display()))?;
    if !dir.metadata().is_ok_and(|m| m.is_dir()) {
        bail!(
            "cannot mount {}: it is not a directory, and only directories can be mounted",
            source.display()
        );
    }
    Ok(dir.into())
}

fn absolute(text: &str, what: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    if !path.is_absolute() {
        return Err(format!("the {what} '{text}' is not absolute: begin it with /"));
    }
    if path.components().any(|c| c == Component::ParentDir) {
        return Err(format!("the {what} '{text}' contains '..': write where it leads"));
    }
    Ok(path)
}

fn target(text: &str) -> Result<PathBuf, String> {
    let path = absolute(text, "place in the guest")?;
    if path.components().count() < 2 {
        return Err("nothing can be mounted on / itself: --rootfs chooses the root".into());
    }
    Ok(path)
}

fn source(text: &str) -> Result<PathBuf, String> {
    if text.is_empty() {
        return Err("the directory of the host is missing".into());
    }
    // Relative to here, as a shell user expects; docker's bare names are volumes, which there are none of.
    std::path::absolute(text).map_err(|e| format!("'{text}': {e}"))
}

fn size(text: &str) -> Result<u64, String> {
    let small = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let scale = match text[small.len()..].to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kb" | "kib" => 1 << 10,
        "m" | "mb" | "mib" => 1 << 20,
        "g" | "gb" | "gib" => 1 << 30,
        _ => 0,
    };
    small
        .parse::<u64>()
        .ok()
        .and_then(|n| n.checked_mul(scale))
        .filter(|n| *n > 0)
        .ok_or_else(|| format!("'{text}' is not a size: write 64m or 1g"))
}

fn mode(text: &str) -> Result<u32, String> {
    u32::from_str_radix(text, 8)
        .ok()
        .filter(|m| *m <= 0o7777)
        .ok_or_else(|| format!("'{text}' is not a mode: write 1777 or 755"))
}

fn parse_mount(text: &str) -> Result<Mount, String> {
    let mut keys: BTreeMap<&str, &str> = BTreeMap::new();
    for item in text.split(',') {
        let (key, value) = item.split_once('=').unwrap_or((item, "true"));
        let key = match key {
            "type" => "type",
            "src" | "source" => "src",
            "dst" | "destination" | "target" => "dst",
            "ro" | "readonly" => "ro",
            "size" | "tmpfs-size" => "size",
            "mode" | "tmpfs-mode" => "mode",
            other => {
                return Err(format!("'{other}' is not known: write type, src, dst, ro, size or mode"));
            }
        };
        if keys.insert(key, value).is_some() {
            return Err(format!("'{key}' is given twice"));
        }
    }
    let dst = keys.remove("dst").ok_or("the place in the guest is missing: add dst=/...")?;
    let kind = keys.remove("type").unwrap_or("bind");
    let made = match kind {
        "bind" => Mount::Bind {
            source: source(keys.remove("src").ok_or("the directory of the host is missing: add src=/...")?)?,
            target: target(dst)?,
            read_only: match keys.remove("ro").unwrap_or("false") {
                "true" | "1" => true,
                "false" | "0" => false,
                other => return Err(format!("'{other}' is neither true nor false")),
            },
        },
        "tmpfs" => Mount::Tmpfs {
            target: target(dst)?,
            size: keys.remove("size").map(size).transpose()?,
            mode: keys.remove("mode").map_or(Ok(0o1777), mode)?,
        },
        other => return Err(format!("the type '{other}' is not known: write bind or tmpfs")),
    };
    match keys.keys().next() {
        Some(key) => Err(format!("'{key}' means nothing for type={kind}")),
        None => Ok(made),
    }
}

fn parse_volume(text: &str) -> Result<Mount, String> {
    let parts: Vec<&str> = text.split(':').collect();
    let (host, guest, read_only) = match parts.as_slice() {
        [host, guest] => (host, guest, false),
        [host, guest, "ro"] => (host, guest, true),
        [host, guest, "rw"] => (host, guest, false),
        [_, _, other] => return Err(format!("'{other}' is neither ro nor rw")),
        _ => return Err(format!("'{text}' is not HOST:GUEST or HOST:GUEST:ro")),
    };
    Ok(Mount::Bind { source: source(host)?, target: target(guest)?, read_only })
}

fn parse_tmpfs(text: &str) -> Result<Mount, String> {
    let (place, options) = text.split_once(':').unwrap_or((text, ""));
    let (mut bytes, mut bits) = (None, 0o1777);
    for item in options.split(',').filter(|i| !i.is_empty()) {
        match item.split_once('=') {
            Some(("size", value)) => bytes = Some(size(value)?),
            Some(("mode", value)) => bits = mode(value)?,
            _ => return Err(format!("'{item}' is not known: write size=64m or mode=1777")),
        }
    }
    Ok(Mount::Tmpfs { target: target(place)?, size: bytes, mode: bits })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bind(source: &str, target: &str, read_only: bool) -> Mount {
        Mount::Bind { source: source.into(), target: target.into(), read_only }
    }

    #[test]
    fn dockers_words_are_understood() {
        assert_eq!(parse_mount("type=bind,src=/a,dst=/b").unwrap(), bind("/a", "/b", false));
        assert_eq!(parse_mount("type=bind,source=/a,target=/b,readonly").unwrap(), bind("/a", "/b", true));
        assert_eq!(parse_mount("destination=/b,src=/a,ro=true").unwrap(), bind("/a", "/b", true));
        assert_eq!(parse_volume("/a:/b:ro").unwrap(), bind("/a", "/b", true));
        assert_eq!(parse_volume("/a:/b").unwrap(), bind("/a", "/b", false));
        let tmpfs = |size, mode| Mount::Tmpfs { target: "/x".into(), size, mode };
        assert_eq!(parse_mount("type=tmpfs,dst=/x,size=64m").unwrap(), tmpfs(Some(64 << 20), 0o1777));
        assert_eq!(parse_mount("type=tmpfs,dst=/x,tmpfs-mode=700").unwrap(), tmpfs(None, 0o700));
        assert_eq!(parse_tmpfs("/x:size=4096,mode=755").unwrap(), tmpfs(Some(4096), 0o755));
        assert_eq!(parse_tmpfs("/x").unwrap(), tmpfs(None, 0o1777));
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, word) in [
            ("type=bind,dst=/b", "src"),
            ("type=bind,src=/a", "dst"),
            ("type=bind,src=/a,dst=b", "absolute"),
            ("type=bind,src=/a,dst=/b/../c", ".."),
            ("type=bind,src=/a,dst=/", "--rootfs"),
            ("type=volume,src=/a,dst=/b", "bind or tmpfs"),
            ("type=tmpfs,dst=/x,src=/a", "src"),
            ("type=tmpfs,dst=/x,size=lots", "size"),
            ("type=bind,src=/a,dst=/b,size=1m", "size"),
            ("src=/a,dst=/b,dst=/c", "twice"),
            ("src=/a,dst=/b,colour=red", "colour"),
            ("src=/a,dst=/b,ro=perhaps", "perhaps"),
        ] {
            let error = parse_mount(text).unwrap_err();
            assert!(error.contains(word), "{text}: {error}");
        }
        for text in ["/a", "/a:b", "/a:/b:rx", "a:b:c:d", ":/b"] {
            assert!(parse_volume(text).is_err(), "{text}");
        }
        for text in ["x", "/", "/x:size", "/x:mode=9"] {
            assert!(parse_tmpfs(text).is_err(), "{text}");
        }
    }
}

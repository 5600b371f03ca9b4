use super::*;
use proptest::prelude::*;
use std::collections::BTreeSet;

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse(text, Path::new("test.toml"))
}

/// Keys with their sections.
fn keys(table: &toml::Table, prefix: &str, into: &mut BTreeSet<String>) {
    for (key, value) in table {
        let name = format!("{prefix}{key}");
        into.insert(name.clone());
        if let toml::Value::Table(table) = value {
            keys(table, &format!("{name}."), into);
        }
    }
}

#[test]
fn the_printed_defaults_are_the_defaults_and_all_of_them() {
    assert_eq!(parse(DEFAULT).unwrap(), Config::default());
    assert_eq!(parse("").unwrap(), Config::default());
    let (mut printed, mut there) = (BTreeSet::new(), BTreeSet::new());
    keys(&DEFAULT.parse().unwrap(), "", &mut printed);
    keys(&toml::Table::try_from(Config::default()).unwrap(), "", &mut there);
    assert_eq!(printed, there);
    assert!(printed.contains("functions.max_memory"), "{printed:?}");
}

#[test]
fn every_printed_key_has_its_comment() {
    let mut before = "";
    for line in DEFAULT.lines() {
        if !line.starts_with('#') && !line.is_empty() {
            assert!(before.starts_with("# "), "no comment before: {line}");
        }
        before = line;
    }
}

#[test]
fn what_is_written_is_read_back() {
    let mut config = Config::default();
    config.gateway.listen = None;
    config.fri.ttrpc = None;
    config.traces.otlp = Some("http://[::1]:4317".into());
    config.memory.budget = (2 << 30) + 1;
    config.env.insert("A".into(), "b = 'c'".into());
    assert_eq!(parse(&toml::to_string(&config).unwrap()).unwrap(), config);
}

#[test]
fn a_key_that_there_is_not_is_named() {
    let Err(error) = parse("[gateway]\nlisten_on = \"127.0.0.1:1\"\n") else { panic!("accepted") };
    let text = std::error::Error::source(&error).unwrap().to_string();
    assert!(text.contains("listen_on") && text.contains("header_timeout_ms"), "{text}");
}

#[test]
fn the_key_of_an_earlier_version_is_accepted_and_named() {
    let old = parse("[gateway]\nbuffered_bytes = \"512 MiB\"\n").unwrap();
    assert_eq!(old.memory.events, 512 << 20);
    let told = old.superseded().unwrap();
    assert!(told.contains("gateway.buffered_bytes") && told.contains("events = \"512 MiB\""), "{told}");
    // Its own lower bound was 6 MiB.
    assert_eq!(parse("[gateway]\nbuffered_bytes = \"6 MiB\"").unwrap().memory.events, 8 << 20);
    let both = "[memory]\nevents = \"16 MiB\"\n[gateway]\nbuffered_bytes = 9000000\n";
    let both = parse(both).unwrap();
    assert_eq!((both.memory.events, both.superseded().is_some()), (16 << 20, true), "the new key holds");
    assert_eq!(parse("[memory]\nevents = \"16 MiB\"").unwrap().superseded(), None);
    assert!(matches!(parse("[gateway]\nbuffered_bytes = \"much\""), Err(ConfigError::Parse { .. })));
}

#[test]
fn a_value_outside_of_its_bounds_names_its_key() {
    let cases = [
        ("state = \"state\"", "state"),
        ("state = \"/\"", "state"),
        ("run = \"/..\"", "run"),
        ("state = \"/srv\"\nrootfs = \"/srv/root\"", "state"),
        ("runtimes = [\"node\", \"python\", \"node\"]", "runtimes"),
        ("hidden = [\"home\"]", "hidden"),
        ("hidden = [\"/home\", \"/\"]", "hidden"),
        ("hidden = [\"/srv/root/\"]\nrootfs = \"/srv/root\"", "hidden"),
        ("hidden = [\"/srv\"]\nrootfs = \"/srv/root\"", "hidden"),
        ("fork_queue = 0", "fork_queue"),
        ("[functions]\nmemory = \"1 KiB\"", "functions.memory"),
        ("[functions]\nmemory = \"11 GiB\"", "functions.memory"),
        ("[functions]\ncpus = 9", "functions.cpus"),
        ("[functions]\ntimeout_ms = 900001", "functions.timeout_ms"),
        ("[fri]\nmode = 0o666", "fri.mode"),
        ("[fri]\nmode = 0o60", "fri.mode"),
        ("[fri]\ngrpc = \"fri.ttrpc.sock\"", "fri.grpc"),
        ("[gateway]\nevent_bytes = \"7 MiB\"", "gateway.event_bytes"),
        ("[metrics]\nlisten = \"127.0.0.1:9800\"", "metrics.listen"),
        ("[reclaim]\npolicy = \"random\"", "reclaim.policy"),
        ("[traces]\notlp = \"collector\"", "traces.otlp"),
        ("[traces]\nsample = nan", "traces.sample"),
        ("[env]\n\"A=B\" = \"\"", "env"),
    ];
    for (text, expected) in cases {
        match parse(text) {
            Err(ConfigError::Value { key, .. }) => assert_eq!(key, expected),
            other => panic!("{text}: {other:?}"),
        }
    }
    let long = format!("run = \"/{}\"", "a".repeat(100));
    assert!(matches!(parse(&long), Err(ConfigError::Value { key: "fri.ttrpc", .. })));
}

#[test]
fn what_is_not_on_this_host_names_its_key() {
    let dir = tempfile::tempdir().unwrap();
    let (gone, file) = (dir.path().join("gone"), dir.path().join("file"));
    std::fs::write(&file, "").unwrap();
    let link = dir.path().join("link");
    std::os::unix::fs::symlink("..", &link).unwrap();
    let cases = [
        (format!("rootfs = {gone:?}"), "rootfs"),
        (format!("rootfs = {file:?}"), "rootfs"),
        (format!("hidden = [{gone:?}]"), "hidden"),
        (format!("rootfs = {:?}\nhidden = [{link:?}]", dir.path()), "hidden"),
        ("[fri]\ngroup = \"no-such-group\"".to_owned(), "fri.group"),
    ];
    for (text, expected) in cases {
        match parse(&text).unwrap().check_host() {
            Err(ConfigError::Value { key, .. }) => assert_eq!(key, expected),
            other => panic!("{text}: {other:?}"),
        }
    }
    let fine = format!("rootfs = {:?}\nhidden = [{file:?}, \"/proc\"]", dir.path());
    parse(&fine).unwrap().check_host().unwrap();
}

#[test]
fn a_value_of_another_type_names_its_line() {
    for text in
        ["fork_queue = -1", "fork_queue = \"many\"", "runtimes = [\"ruby\"]", "[gateway]\nlisten = \"here\""]
    {
        let Err(ConfigError::Parse { source, .. }) = parse(text) else { panic!("{text}") };
        assert!(source.to_string().contains("line "), "{source}");
    }
}

#[test]
fn sockets_are_below_the_runtime_directory() {
    let config = parse("run = \"/a\"\n[fri]\nttrpc = \"x\"\ngrpc = \"/b/y\"").unwrap();
    assert_eq!(config.ttrpc_socket(), Some("/a/x".into()));
    assert_eq!(config.grpc_socket(), Some("/b/y".into()));
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let error = Config::load(Path::new("/nowhere/coppiced.toml")).unwrap_err();
    assert!(matches!(&error, ConfigError::Read { path, .. } if path.ends_with("coppiced.toml")));
}

proptest! {
    #[test]
    fn no_text_panics(text in "[a-z_.=\\[\\]\"0-9 \n]{0,200}") {
        let _ = parse(&text);
    }
}

//! `coppice run --mount`, `--volume`, `--tmpfs`: directories of the host and memory in the guest, and nothing beyond them.

mod support;

use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::process::Command;
use support::{LIMIT, coppice, finish, fresh_dir, guest};

fn shell(options: &[&str], script: &str) -> support::Outcome {
    guest(options, "/bin/sh".as_ref(), &["-c", script], b"")
}

#[test]
fn a_mounted_directory_is_read_and_written_on_the_host() {
    let dir = fresh_dir("mount");
    let host = dir.path();
    std::fs::write(host.join("in"), "from the host\n").unwrap();
    std::fs::create_dir(host.join("sub")).unwrap();
    let spec = format!("type=bind,src={},dst=/mnt/work", host.display());
    let script = "set -e; cd /mnt/work; cat in; echo out > out; echo more >> in; mkdir made; mv out made/moved; \
        ln made/moved hard; ln -s moved made/link; cat made/link; chmod 640 hard; touch -d @1000 hard; rm -r sub; \
        truncate -s 3 made/moved; chown 12:34 in; mkfifo fifo; ls -a . | tr '\\n' ' '; stat -c %s hard; \
        mv made renamed; cat renamed/moved; pwd; df . | wc -l";
    let outcome = shell(&["--mount", &spec], script);
    assert_eq!(
        outcome.text(),
        "from the host\nout\n. .. fifo hard in made 3\nout/mnt/work\n2\n",
        "{}",
        outcome.stderr
    );
    assert_eq!(outcome.status, 0);
    let read = |name: &str| std::fs::read_to_string(host.join(name)).unwrap();
    assert_eq!(read("in"), "from the host\nmore\n");
    assert_eq!(read("renamed/moved"), "out");
    assert_eq!(read("hard"), "out");
    let hard = host.join("hard").metadata().unwrap();
    assert_eq!((hard.permissions().mode() & 0o7777, hard.nlink()), (0o640, 2));
    let owner = host.join("in").metadata().unwrap();
    assert_eq!((owner.uid(), owner.gid()), (12, 34));
    assert_eq!(std::fs::read_link(host.join("renamed/link")).unwrap().as_os_str(), "moved");
    assert!(!host.join("sub").exists() && !host.join("made").exists());
}

#[test]
fn a_program_sees_what_the_host_changes_meanwhile() {
    let dir = fresh_dir("mount");
    std::fs::write(dir.path().join("a"), "1").unwrap();
    let volume = format!("{}:/data", dir.path().display());
    let script = "import os, time\n\
        print(open('/data/a').read(), flush=True)\n\
        open('/data/ready', 'w').close()\n\
        while not os.path.exists('/data/go'): time.sleep(0.01)\n\
        print(open('/data/a').read(), sorted(os.listdir('/data')))";
    let host = dir.path().to_owned();
    let other = std::thread::spawn(move || {
        while !host.join("ready").exists() {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        std::fs::remove_file(host.join("a")).unwrap();
        std::fs::write(host.join("a"), "another").unwrap();
        std::fs::write(host.join("go"), "").unwrap();
    });
    let outcome = guest(&["-v", &volume], "/usr/bin/python3".as_ref(), &["-c", script], b"");
    other.join().unwrap();
    assert_eq!(outcome.text(), "1\nanother ['a', 'go', 'ready']\n", "{}", outcome.stderr);
}

#[test]
fn a_mount_that_is_written_to_does_not_become_read_only() {
    let dir = fresh_dir("mount");
    let volume = format!("{}:/data", dir.path().display());
    let script = "cd /; exec 3>>/data/f; mount -o remount,ro /data 2>/dev/null || echo busy; echo text >&3; exec 3>&-; \
        mount -o remount,ro /data && echo done; sh -c 'echo x > /data/f' 2>&1 | grep -c 'Read-only'";
    let outcome = shell(&["--volume", &volume], script);
    assert_eq!(outcome.text(), "busy\ndone\n1\n", "{}", outcome.stderr);
    assert_eq!(std::fs::read_to_string(dir.path().join("f")).unwrap(), "text\n");
}

#[test]
fn a_read_only_mount_cannot_be_changed() {
    let dir = fresh_dir("mount");
    std::fs::write(dir.path().join("f"), "kept").unwrap();
    let volume = format!("{}:/data:ro", dir.path().display());
    let script = "cd /data; cat f; for c in 'touch new' 'rm f' 'mv f g' 'chmod 0 f' 'chown 1 f' 'ln f h' 'mkdir d' 'ln -s x l' \
        'truncate -s 0 f' 'touch f'; do $c 2>&1 | grep -c 'Read-only file system'; done; sh -c 'echo x > f' 2>&1 | \
        grep -c 'Read-only'; mount | grep -c '/data .*ro'; umount /data 2>/dev/null || echo busy; mount -o remount,rw /data 2>/dev/null || echo no; cd /; umount /data; ls /data | wc -l";
    let outcome = shell(&["--volume", &volume], script);
    assert_eq!(outcome.text(), format!("kept{}", "1\n".repeat(12)) + "busy\nno\n0\n", "{}", outcome.stderr);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    assert_eq!(std::fs::read_to_string(dir.path().join("f")).unwrap(), "kept");
}

#[test]
fn neither_links_nor_dots_lead_out_of_a_mount() {
    let dir = fresh_dir("mount");
    let (inner, secret) = (dir.path().join("inner"), dir.path().join("secret"));
    std::fs::create_dir_all(inner.join("sub")).unwrap();
    std::fs::write(&secret, "secret").unwrap();
    symlink("../secret", inner.join("up")).unwrap();
    symlink(&secret, inner.join("absolute")).unwrap();
    symlink("..", inner.join("sub/parent")).unwrap();
    symlink(dir.path(), inner.join("dir")).unwrap();
    let volume = format!("{}:/data", inner.display());
    let script = "cd /data; for f in up ../secret sub/parent/../secret sub/../../secret dir/secret; do cat $f 2>/dev/null && echo \" by $f\"; \
        echo changed > $f 2>/dev/null; done; cd sub; cd ..; pwd; ls | wc -l";
    // The absolute links lead to the guest's own copy of the host's files, which it may change.
    let outcome = shell(&["-v", &volume], script);
    assert!(outcome.text().ends_with("/data\n4\n"), "{}{}", outcome.text(), outcome.stderr);
    for way in ["up", "../secret", "sub/"] {
        assert!(!outcome.text().contains(&format!("secret by {way}")), "{}", outcome.text());
    }
    assert_eq!(std::fs::read_to_string(&secret).unwrap(), "secret");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2);
}

#[test]
fn no_program_that_lends_its_owners_rights_gets_on_the_host() {
    let dir = fresh_dir("mount");
    let lent = dir.path().join("lent");
    std::fs::write(&lent, "old").unwrap();
    std::fs::set_permissions(&lent, std::fs::Permissions::from_mode(0o4777)).unwrap();
    let volume = format!("{}:/data", dir.path().display());
    let script = "import os\n\
        def tried(what, *a):\n\
        \x20   try: what(*a); print('done')\n\
        \x20   except OSError as e: print(e.errno)\n\
        os.umask(0); os.chdir('/data'); open('f', 'w').close(); os.mkdir('d')\n\
        tried(os.chmod, 'f', 0o4755); tried(os.chmod, 'f', 0o2755); tried(os.open, 'g', os.O_CREAT, 0o6755)\n\
        tried(os.chmod, 'f', 0o2644); tried(os.chmod, 'd', 0o3777); tried(os.mknod, 'n', 0o20666, 0x103)\n\
        os.setuid(1000); open('lent', 'w').write('new'); print(oct(os.stat('lent').st_mode))";
    let outcome = guest(&["-v", &volume], "/usr/bin/python3".as_ref(), &["-c", script], b"");
    assert_eq!(outcome.text(), "1\n1\n1\ndone\ndone\n1\n0o100777\n", "{}", outcome.stderr);
    let mode = |name: &str| dir.path().join(name).metadata().unwrap().permissions().mode() & 0o7777;
    assert_eq!((mode("f"), mode("d"), mode("lent")), (0o2644, 0o3777, 0o777));
    assert!(!dir.path().join("g").exists() && !dir.path().join("n").exists());
}

#[test]
fn memory_is_mounted_with_its_size() {
    let options = ["--mount", "type=tmpfs,dst=/scratch,size=1m", "--tmpfs", "/other:size=64k,mode=700"];
    let script = "cd /scratch; stat -c %a . /other; head -c 900000 /dev/zero > a && echo fits; \
        head -c 300000 /dev/zero > b 2>/dev/null || echo full; rm a; head -c 300000 /dev/zero > b && echo again; \
        df -k /scratch /other | awk 'NR > 1 { print $2 }'; grep -c tmpfs.*/scratch /proc/mounts";
    let outcome = shell(&options, script);
    assert_eq!(outcome.text(), "1777\n700\nfits\nfull\nagain\n1024\n64\n1\n", "{}", outcome.stderr);
}

#[test]
fn wrong_mounts_are_named_before_anything_runs() {
    let dir = fresh_dir("mount");
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    let (here, file) = (dir.path().display().to_string(), file.display().to_string());
    for (options, word) in [
        (vec!["-v".to_owned(), format!("{here}/missing:/x")], "cannot be opened"),
        (vec!["-v".into(), format!("{file}:/x")], "not a directory"),
        (vec!["-v".into(), format!("{here}:x")], "absolute"),
        (vec!["-v".into(), format!("{here}:/x"), "--tmpfs".into(), "/x/".into()], "twice"),
        (vec!["--mount".into(), "type=bind,dst=/x".into()], "src"),
        (vec!["-v".into(), format!("{here}:/etc/passwd")], "/etc/passwd"),
    ] {
        let mut command: Command = coppice();
        command.arg("run").args(&options).args(["--", "/bin/echo", "ran"]);
        let outcome = finish(&mut command, b"", LIMIT);
        assert!(outcome.status != 0 && outcome.text().is_empty(), "{options:?}: {outcome:?}");
        assert!(outcome.stderr.contains(word), "{options:?}: {}", outcome.stderr);
    }
}

/// Writable shared mappings of files of a mounted directory were ENODEV: SQLite's write-ahead log, LMDB and the like could not work there.
#[test]
fn shared_mappings_write_to_the_files_of_the_host() {
    let dir = fresh_dir("mount");
    std::fs::write(dir.path().join("f"), vec![b'a'; 10_000]).unwrap();
    let volume = format!("{}:/data", dir.path().display());
    let script = "import mmap, os, signal, sqlite3, sys\n\
        f = os.open('/data/f', os.O_RDWR)\n\
        m = mmap.mmap(f, 10000); m[5000:5005] = b'hello'\n\
        print(os.pread(f, 7, 4999))\n\
        os.pwrite(f, b'other', 9000); print(m[9000:9006])\n\
        second = mmap.mmap(os.open('/data/f', os.O_RDWR), 10000); second[0] = 90; print(m[0])\n\
        if os.fork() == 0:\n\
        \x20   m[1] = 91; os._exit(0)\n\
        os.wait(); print(second[1]); m.flush()\n\
        os.ftruncate(f, 20000); more = mmap.mmap(f, 20000); more[19999] = 33; print(os.pread(f, 1, 19999), more[1])\n\
        os.ftruncate(f, 4096)\n\
        if os.fork() == 0:\n\
        \x20   more[8000]; os._exit(0)\n\
        print(os.wait()[1] & 127)\n\
        os.ftruncate(f, 20000); print(more[8000], more[1])\n\
        try: mmap.mmap(os.open('/data/f', os.O_RDONLY), 4096)\n\
        except PermissionError as e: print(e.errno)\n\
        db = sqlite3.connect('/data/db'); print(db.execute('pragma journal_mode=wal').fetchone())\n\
        db.execute('create table t(x)'); db.execute('insert into t values (7)'); db.commit()\n\
        print(sqlite3.connect('/data/db').execute('select x from t').fetchone(), sorted(os.listdir('/data')))";
    let outcome = guest(&["-v", &volume], "/usr/bin/python3".as_ref(), &["-c", script], b"");
    assert_eq!(
        outcome.text(),
        "b'ahelloa'\nb'othera'\n90\n91\nb'!' 91\n7\n0 91\n13\n('wal',)\n(7,) ['db', 'db-shm', 'db-wal', 'f']\n",
        "{}",
        outcome.stderr
    );
    let now = std::fs::read(dir.path().join("f")).unwrap();
    assert_eq!((now.len(), &now[..3]), (20_000, &b"Z[a"[..]));
}

#[test]
fn a_file_of_the_host_that_is_open_outlives_a_lazy_unmount() {
    let dir = fresh_dir("mount");
    std::fs::write(dir.path().join("f"), "begun").unwrap();
    std::fs::create_dir(dir.path().join("d")).unwrap();
    let volume = format!("{}:/data", dir.path().display());
    let script = "import ctypes, os\n\
        f = os.open('/data/f', os.O_RDWR | os.O_APPEND); d = os.open('/data/d', os.O_RDONLY); os.chdir('/data')\n\
        libc = ctypes.CDLL(None, use_errno=True)\n\
        print(libc.umount2(b'/data', 0), ctypes.get_errno(), libc.umount2(b'/data', 2))\n\
        print(os.listdir('/data'), '/data' in open('/proc/mounts').read())\n\
        os.write(f, b' and gone on'); open('beside', 'w').write('made later'); os.mkdir('made', dir_fd=d)\n\
        print(os.pread(f, 99, 0), sorted(os.listdir('.')), os.fstat(f).st_size)\n\
        os.ftruncate(f, 8); os.close(f); os.chdir('/'); os.close(d)";
    let outcome = guest(&["-v", &volume], "/usr/bin/python3".as_ref(), &["-c", script], b"");
    let expected = "-1 16 0\n[] False\nb'begun and gone on' ['beside', 'd', 'f'] 17\n";
    assert_eq!(outcome.text(), expected, "{}", outcome.stderr);
    assert_eq!(std::fs::read_to_string(dir.path().join("f")).unwrap(), "begun an");
    assert_eq!(std::fs::read_to_string(dir.path().join("beside")).unwrap(), "made later");
    assert!(dir.path().join("d/made").is_dir());
}

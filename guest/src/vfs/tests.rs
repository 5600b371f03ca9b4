//! The file tree on the fake platform with a temporary directory as the lower tree.

use super::inode::{Kind, ROOT, S_IFLNK};
use super::path::Walk;
use super::{FileKind, InodeId};
use crate::abi::AT_FDCWD;
use crate::errno::Errno;
use crate::kernel::{Kernel, Limits};
use crate::platform::fake::FakePlatform;
use linux_raw_sys::general as g;
use proptest::prelude::*;
use std::fs;
use std::os::unix::fs::symlink;
use std::sync::Arc;

fn kernel(dir: &std::path::Path) -> Kernel {
    let mut k = Kernel::new(Arc::new(FakePlatform::new(64 << 20)), Limits::default()).unwrap();
    k.mount_root(fs::File::open(dir).unwrap().into()).unwrap();
    k
}

/// A lower tree with a file, a directory, links, and a secret outside of it.
fn tree() -> (tempfile::TempDir, Kernel) {
    let top = tempfile::tempdir().unwrap();
    fs::write(top.path().join("secret"), "secret").unwrap();
    let root = top.path().join("root");
    fs::create_dir(&root).unwrap();
    fs::write(root.join("file"), "lower").unwrap();
    fs::hard_link(root.join("file"), root.join("file2")).unwrap();
    fs::create_dir_all(root.join("dir/sub")).unwrap();
    fs::write(root.join("dir/a"), "a").unwrap();
    fs::write(root.join("dir/b"), "b").unwrap();
    symlink("loop2", root.join("loop1")).unwrap();
    symlink("loop1", root.join("loop2")).unwrap();
    symlink("file", root.join("link")).unwrap();
    symlink("/dir", root.join("abs")).unwrap();
    symlink("../../secret", root.join("dir/out")).unwrap();
    symlink("../secret", root.join("out")).unwrap();
    symlink(top.path().join("secret"), root.join("out2")).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        root.join("fifo"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from(0o666),
        0,
    )
    .unwrap();
    let k = kernel(&root);
    (top, k)
}

fn open(k: &mut Kernel, path: &str, flags: u32) -> Result<InodeId, Errno> {
    let file = k.open_path(0, AT_FDCWD, path.as_bytes(), flags, 0o644)?;
    match k.files.get(file).unwrap().kind {
        FileKind::Inode(id) | FileKind::Device(_, id) => Ok(id),
        _ => panic!("{path} is no inode"),
    }
}

fn read(k: &mut Kernel, path: &str) -> Result<String, Errno> {
    let id = open(k, path, g::O_RDONLY)?;
    contents(k, id)
}

fn contents(k: &mut Kernel, id: InodeId) -> Result<String, Errno> {
    let mut buf = vec![0; 65536];
    let n = k.inode_read(id, 0, &mut buf)?;
    Ok(String::from_utf8_lossy(&buf[..n]).into_owned())
}

fn at(k: &mut Kernel, path: &str) -> Walk {
    k.resolve(0, AT_FDCWD, path.as_bytes(), false).unwrap()
}

fn names(k: &mut Kernel, path: &str) -> Vec<String> {
    let id = open(k, path, g::O_RDONLY | g::O_DIRECTORY).unwrap();
    let mut all: Vec<String> = k
        .inode_readdir(id, 2, 1000)
        .unwrap()
        .into_iter()
        .map(|l| String::from_utf8(l.name).unwrap())
        .collect();
    all.sort();
    all
}

fn write(k: &mut Kernel, path: &str, text: &str) {
    let id = open(k, path, g::O_WRONLY | g::O_CREAT | g::O_TRUNC).unwrap();
    assert_eq!(k.inode_write(id, 0, text.as_bytes()), Ok(text.len()));
}

#[test]
fn a_file_cut_short_leaves_its_mappings_and_comes_back_when_it_grows() {
    let (_top, mut k) = tree();
    let mm = k.mm_new().unwrap();
    crate::exec::test_task(&mut k, 1, mm, 0, 0);
    let file = k.open_path(0, AT_FDCWD, b"/tmp/f", g::O_CREAT | g::O_RDWR, 0o600).unwrap();
    let FileKind::Inode(inode) = k.files.get(file).unwrap().kind else { panic!() };
    k.inode_write(inode, 0, &[b'a'; 8192]).unwrap();
    let va = k.mmap(1, 0, 8192, 3, 1, Some(file), 0).unwrap();
    assert_eq!(k.get_u32(1, va + 4096), Ok(0x6161_6161));
    k.inode_truncate(inode, 100).unwrap();
    assert_eq!(k.get_u32(1, va), Ok(0x6161_6161));
    assert_eq!(k.get_u32(1, va + 4096), Err(Errno::EFAULT));
    k.inode_truncate(inode, 8192).unwrap();
    k.put_u32(1, va + 4096, 7).unwrap();
    let mut seen = [0; 4];
    assert_eq!(k.inode_read(inode, 4096, &mut seen), Ok(4));
    assert_eq!(seen, 7u32.to_le_bytes());
    // What a mapping left beyond the end is not what the file holds once it grows, whatever makes it grow.
    for grow in [0, 1] {
        k.inode_truncate(inode, 100).unwrap();
        k.put_u32(1, va + 2000, 7).unwrap();
        if grow == 0 {
            k.inode_truncate(inode, 4096).unwrap();
        } else {
            k.inode_write(inode, 3000, b"x").unwrap();
        }
        assert_eq!(k.inode_read(inode, 2000, &mut seen), Ok(4));
        assert_eq!(seen, [0; 4]);
    }
}

#[test]
fn a_path_deeper_than_path_max_is_cut() {
    let (_top, mut k) = tree();
    let (mut at, name) = (ROOT, [b'd'; 255]);
    for _ in 0..1000 {
        let stat = k.fresh_stat(super::inode::S_IFDIR | 0o755);
        let kind = Kind::Dir(super::inode::Dir::over(None));
        at = k.bind_new(at, &name, kind, stat, super::inode::FsKind::Root).unwrap();
    }
    let path = k.inode_path(at);
    assert!(path.len() >= 4096 && path.len() < 8192, "{}", path.len());
}

#[test]
fn lower_files_are_read_through_links_relative_and_absolute() {
    let (_top, mut k) = tree();
    assert_eq!(read(&mut k, "/file").unwrap(), "lower");
    assert_eq!(read(&mut k, "link").unwrap(), "lower");
    assert_eq!(read(&mut k, "/abs/a").unwrap(), "a");
    assert_eq!(read(&mut k, "/abs/../file").unwrap(), "lower");
    let id = open(&mut k, "/abs/a", g::O_RDONLY).unwrap();
    assert_eq!(k.inode_path(id), b"/dir/a");
}

#[test]
fn symlink_loops_end_in_eloop() {
    let (_top, mut k) = tree();
    assert_eq!(open(&mut k, "/loop1", 0), Err(Errno::ELOOP));
    assert_eq!(open(&mut k, "/link", g::O_NOFOLLOW), Err(Errno::ELOOP));
    assert!(open(&mut k, "/link", g::O_NOFOLLOW | g::O_PATH).is_ok());
}

#[test]
fn dot_dot_at_the_root_stays_there() {
    let (_top, mut k) = tree();
    assert_eq!(read(&mut k, "/../../../file").unwrap(), "lower");
    for path in ["/out", "/out2", "/dir/out", "/../secret", "/dir/../../secret"] {
        assert_eq!(read(&mut k, path), Err(Errno::ENOENT), "{path}");
    }
}

#[test]
fn writing_copies_up_and_leaves_the_lower_file_alone() {
    let (top, mut k) = tree();
    let id = open(&mut k, "/file", g::O_RDWR).unwrap();
    assert_eq!(k.inode_write(id, 5, b" and upper"), Ok(10));
    assert_eq!(read(&mut k, "/file").unwrap(), "lower and upper");
    k.inode_truncate(id, 2).unwrap();
    k.inode_truncate(id, 4).unwrap();
    assert_eq!(read(&mut k, "/file").unwrap(), "lo\0\0");
    assert_eq!(fs::read_to_string(top.path().join("root/file")).unwrap(), "lower");
    assert!(matches!(k.vfs.inode(id).unwrap().kind, Kind::File(_)));
}

#[test]
fn a_removed_lower_name_stays_removed_and_can_be_made_again() {
    let (top, mut k) = tree();
    let walk = at(&mut k, "/dir/a");
    k.unlink(0, &walk).unwrap();
    assert_eq!(read(&mut k, "/dir/a"), Err(Errno::ENOENT));
    assert_eq!(names(&mut k, "/dir"), ["b", "out", "sub"]);
    write(&mut k, "/dir/a", "new");
    assert_eq!(read(&mut k, "/dir/a").unwrap(), "new");
    assert_eq!(names(&mut k, "/dir"), ["a", "b", "out", "sub"]);
    let walk = at(&mut k, "/dir/a");
    k.unlink(0, &walk).unwrap();
    assert_eq!(read(&mut k, "/dir/a"), Err(Errno::ENOENT));
    assert_eq!(fs::read_to_string(top.path().join("root/dir/a")).unwrap(), "a");
}

#[test]
fn a_directory_made_over_a_removed_one_is_empty() {
    let (_top, mut k) = tree();
    for path in ["/dir/a", "/dir/b", "/dir/out"] {
        let walk = at(&mut k, path);
        k.unlink(0, &walk).unwrap();
    }
    let walk = at(&mut k, "/dir");
    assert_eq!(k.remove_dir(0, &walk), Err(Errno::ENOTEMPTY));
    let sub = at(&mut k, "/dir/sub");
    k.remove_dir(0, &sub).unwrap();
    k.remove_dir(0, &walk).unwrap();
    let walk = at(&mut k, "/dir");
    k.make_dir(0, &walk, 0o755).unwrap();
    assert!(names(&mut k, "/dir").is_empty());
    assert_eq!(read(&mut k, "/dir/a"), Err(Errno::ENOENT));
}

#[test]
fn an_unlinked_file_lives_until_it_is_closed() {
    let (_top, mut k) = tree();
    write(&mut k, "/tmp/x", "alive");
    let id = open(&mut k, "/tmp/x", g::O_RDONLY).unwrap();
    let opens = i32::try_from(k.vfs.inode(id).unwrap().opens).unwrap();
    k.inode_open_count(id, 1 - opens);
    let walk = at(&mut k, "/tmp/x");
    k.unlink(0, &walk).unwrap();
    assert_eq!(read(&mut k, "/tmp/x"), Err(Errno::ENOENT));
    assert_eq!(contents(&mut k, id).unwrap(), "alive");
    assert_eq!(k.inode_path(id), b"/tmp/x (deleted)");
    k.inode_open_count(id, -1);
    assert_eq!(k.inode_stat(id), Err(Errno::ENOENT));
}

#[test]
fn rename_replaces_files_and_hides_the_lower_name() {
    let (_top, mut k) = tree();
    write(&mut k, "/tmp/x", "x");
    let (from, to) = (at(&mut k, "/file"), at(&mut k, "/tmp/x"));
    k.rename(0, &from, &to, true, false).unwrap_err();
    k.rename(0, &from, &to, false, false).unwrap();
    assert_eq!(read(&mut k, "/file"), Err(Errno::ENOENT));
    assert_eq!(read(&mut k, "/tmp/x").unwrap(), "lower");
    let (from, to) = (at(&mut k, "/dir"), at(&mut k, "/dir/sub/x"));
    assert_eq!(k.rename(0, &from, &to, false, false), Err(Errno::EINVAL));
    let to = at(&mut k, "/moved");
    k.rename(0, &from, &to, false, false).unwrap();
    assert_eq!(read(&mut k, "/moved/a").unwrap(), "a");
    assert_eq!(names(&mut k, "/moved"), ["a", "b", "out", "sub"]);
    assert_eq!(read(&mut k, "/dir/a"), Err(Errno::ENOENT));
    let (from, to) = (at(&mut k, "/moved/a"), at(&mut k, "/dev/shm/a"));
    assert_eq!(k.rename(0, &from, &to, false, false), Err(Errno::EXDEV));
    let (from, to) = (at(&mut k, "/moved/a"), at(&mut k, "/tmp/x"));
    k.rename(0, &from, &to, false, true).unwrap();
    assert_eq!(read(&mut k, "/moved/a").unwrap(), "lower");
    assert_eq!(read(&mut k, "/tmp/x").unwrap(), "a");
}

#[test]
fn listings_merge_both_layers_and_survive_removals_in_between() {
    let (_top, mut k) = tree();
    write(&mut k, "/dir/c", "c");
    let id = open(&mut k, "/dir", g::O_RDONLY).unwrap();
    let mut seen = Vec::new();
    let mut pos = 0;
    loop {
        let lines = k.inode_readdir(id, pos, 1).unwrap();
        let Some(line) = lines.into_iter().next() else { break };
        pos = line.next;
        let name = String::from_utf8(line.name).unwrap();
        if !name.starts_with('.') && name != "sub" {
            let walk = at(&mut k, &format!("/dir/{name}"));
            k.unlink(0, &walk).unwrap();
        }
        seen.push(name);
    }
    seen.sort();
    assert_eq!(seen, [".", "..", "a", "b", "c", "out", "sub"]);
    assert_eq!(names(&mut k, "/dir"), ["sub"]);
}

#[test]
fn names_made_and_removed_leave_nothing_behind() {
    let (_top, mut k) = tree();
    let inodes = k.vfs.inodes.len();
    for i in 0..50 {
        let path = format!("/dir/n{i}");
        let id = open(&mut k, &path, g::O_CREAT | g::O_RDWR).unwrap();
        let walk = at(&mut k, &path);
        k.unlink(0, &walk).unwrap();
        k.inode_open_count(id, -1);
    }
    let dir = open(&mut k, "/dir", 0).unwrap();
    assert!(k.vfs.dir(dir).unwrap().names.is_empty());
    assert_eq!(k.vfs.inodes.len(), inodes + 1, "only /dir itself is new");
}

#[test]
fn open_flags_fail_as_on_linux() {
    let (_top, mut k) = tree();
    let mut fails = |path: &str, flags: u32, errno: Errno| {
        assert_eq!(open(&mut k, path, flags), Err(errno), "{path} {flags:o}");
    };
    fails("/file", g::O_CREAT | g::O_EXCL, Errno::EEXIST);
    fails("/link", g::O_CREAT | g::O_EXCL, Errno::EEXIST);
    fails("/file/", 0, Errno::ENOTDIR);
    fails("/file/x", 0, Errno::ENOTDIR);
    fails("/file", g::O_DIRECTORY, Errno::ENOTDIR);
    fails("/dir", g::O_WRONLY, Errno::EISDIR);
    fails("/dir", g::O_CREAT, Errno::EISDIR);
    fails("/new/", g::O_CREAT, Errno::EISDIR);
    fails("/none/new", g::O_CREAT, Errno::ENOENT);
    fails("", 0, Errno::ENOENT);
    fails(&"x".repeat(256), 0, Errno::ENAMETOOLONG);
    fails(&"x/".repeat(2048), 0, Errno::ENAMETOOLONG);
    // The kernel itself does not wait for the other side.
    fails("/fifo", 0, Errno::EACCES);
    fails("/dev/tty", g::O_RDWR, Errno::ENXIO);
    fails("/tmp", O_TMPFILE_READ, Errno::EINVAL);
    fails("/proc/new", g::O_CREAT | g::O_WRONLY, Errno::ENOENT);
    assert!(open(&mut k, "/dir/", 0).is_ok());
    let id = open(&mut k, "/tmp", g::O_TMPFILE | g::O_RDWR).unwrap();
    assert_eq!(k.inode_stat(id).unwrap().nlink, 0);
}

const O_TMPFILE_READ: u32 = g::O_TMPFILE;

#[test]
fn proc_sys_and_dev_are_always_the_guests_own() {
    let top = tempfile::tempdir().unwrap();
    fs::create_dir(top.path().join("proc")).unwrap();
    fs::write(top.path().join("proc/version"), "of the host").unwrap();
    let mut k = kernel(top.path());
    assert!(read(&mut k, "/proc/version").unwrap().starts_with("Linux version"));
    assert_eq!(read(&mut k, "/sys/devices/system/cpu/online").unwrap(), "0\n");
    assert!(read(&mut k, "/proc/meminfo").unwrap().starts_with("MemTotal:        1048576 kB\n"));
    let uuid = read(&mut k, "/proc/sys/kernel/random/uuid").unwrap();
    assert_eq!(uuid.len(), 37);
    assert_ne!(uuid, read(&mut k, "/proc/sys/kernel/random/uuid").unwrap());
    let boot = read(&mut k, "/proc/sys/kernel/random/boot_id").unwrap();
    assert_eq!(boot, read(&mut k, "/proc/sys/kernel/random/boot_id").unwrap());
    assert!(names(&mut k, "/").contains(&"proc".to_owned()));
    for name in names(&mut k, "/proc") {
        assert!(k.resolve(0, AT_FDCWD, format!("/proc/{name}").as_bytes(), false).unwrap().inode.is_some());
    }
}

#[test]
fn the_tree_survives_being_written_out_and_read_again() {
    let (top, mut k) = tree();
    write(&mut k, "/dir/c", "c");
    let bytes = postcard::to_allocvec(&k.vfs).unwrap();
    k.vfs = postcard::from_bytes(&bytes).unwrap();
    k.vfs_set_root(top.path());
    assert_eq!(read(&mut k, "/dir/c").unwrap(), "c");
    assert_eq!(read(&mut k, "/file").unwrap(), "lower");
    assert_eq!(read(&mut k, "/dir/b").unwrap(), "b");
}

impl Kernel {
    fn vfs_set_root(&mut self, top: &std::path::Path) {
        self.set_root_fd(fs::File::open(top.join("root")).unwrap().into());
    }
}

#[test]
fn a_host_tree_is_walked_and_listed() {
    let mut k = kernel(std::path::Path::new("/usr"));
    let mut queue = vec![ROOT];
    let mut seen = 0;
    while let Some(id) = queue.pop() {
        let Ok(lines) = k.inode_readdir(id, 2, 64) else { continue };
        for line in lines {
            seen += 1;
            let Ok(Some(child)) = k.lookup(id, &line.name) else { continue };
            let stat = k.inode_stat(child).unwrap();
            assert_eq!(super::inode::dtype(stat.mode), line.dtype, "{:?}", k.inode_path(child));
            if k.vfs.inode(child).unwrap().is_dir() && queue.len() < 64 {
                queue.push(child);
            }
        }
        if seen > 2000 {
            break;
        }
    }
    assert!(seen > 100);
}

/// Process 1 with an open file on descriptor 5.
fn process(k: &mut Kernel, file: u64) {
    let fds = [(5, crate::task::Fd { file, cloexec: true })];
    let files = k.fd_tables.insert(crate::task::FdTable::of(fds));
    let fs = k.fs_contexts.insert(crate::task::FsContext { root: ROOT, cwd: ROOT, umask: 0o022, refs: 1 });
    let name = *b"a (name)\0\0\0\0\0\0\0\0";
    let task = crate::task::Task { files, fs, name, ..crate::task::Task::new(1, 1) };
    let process = crate::task::Process {
        threads: [1].into(),
        exe: b"/file".to_vec(),
        ..crate::task::Process::new(1, 0)
    };
    k.tasks.insert(1, task);
    k.processes.insert(1, process);
}

#[test]
fn proc_self_shows_the_process_and_its_descriptors() {
    let (_top, mut k) = tree();
    let file = k.open_path(0, AT_FDCWD, b"/dir/a", g::O_RDONLY, 0).unwrap();
    process(&mut k, file);
    let link = |k: &mut Kernel, path: &str| {
        let id = k.resolve(1, AT_FDCWD, path.as_bytes(), false).unwrap().inode.unwrap();
        String::from_utf8(k.link_text(1, id).unwrap()).unwrap()
    };
    assert_eq!(link(&mut k, "/proc/self"), "1");
    assert_eq!(link(&mut k, "/proc/thread-self"), "1/task/1");
    assert_eq!(link(&mut k, "/proc/self/fd/5"), "/dir/a");
    assert_eq!(link(&mut k, "/proc/self/exe"), "/file");
    assert_eq!(link(&mut k, "/proc/self/cwd"), "/");
    let mut text = |path: &str| {
        let file = k.open_path(1, AT_FDCWD, path.as_bytes(), g::O_RDONLY, 0)?;
        let FileKind::Inode(id) = k.files.get(file).unwrap().kind else { panic!("{path} is no inode") };
        contents(&mut k, id)
    };
    assert_eq!(text("/proc/self/fd/5").unwrap(), "a");
    assert_eq!(text("/dev/fd/5").unwrap(), "a");
    assert_eq!(text("/proc/self/exe").unwrap(), "lower");
    // Its memory is nowhere.
    assert_eq!(text("/proc/self/cmdline").unwrap(), "");
    assert_eq!(text("/proc/self/comm").unwrap(), "a (name)\n");
    assert_eq!(text("/proc/self/fd/6"), Err(Errno::ENOENT));
    assert_eq!(text("/proc/2/stat"), Err(Errno::ENOENT));
    assert_eq!(text("/proc/self/mem"), Err(Errno::EIO), "nothing is mapped at 0");
    let stat = text("/proc/self/stat").unwrap();
    assert!(stat.starts_with("1 (a (name)) R 0 1 1 "), "{stat}");
    let fields = |stat: &str| -> Vec<String> {
        stat.rsplit(") ").next().unwrap().split_whitespace().map(str::to_owned).collect()
    };
    assert_eq!(fields(&stat).len(), 50, "52 fields: proc(5)");
    // No terminal; nothing used yet.
    assert_eq!(fields(&stat)[4..6], ["0", "-1"], "{stat}");
    assert_eq!(fields(&stat)[11..17], ["0", "0", "0", "0", "20", "0"], "{stat}");
    let status = text("/proc/self/status").unwrap();
    assert!(status.contains("\nUid:\t0\t0\t0\t0\n"), "{status}");
    assert!(text("/proc/self/fdinfo/5").unwrap().contains("flags:\t02100000\n"));
    assert_eq!(text("/proc/self/oom_score_adj").unwrap(), "0\n");
    k.synth_write("proc/1/oom_score_adj", b"-17\n").unwrap();
    assert_eq!(k.synth_write("proc/1/oom_score_adj", b"1001"), Err(Errno::EINVAL));
    // Times of the dead are kept: 3 s in user mode and 2 s in the kernel, in ticks.
    let aux = &mut k.processes.get_mut(&1).unwrap().aux;
    (aux.dead_cpu_ns, aux.child_system_ns) = (3_000_000_000, 2_000_000_000);
    let mut text = |path: &str| {
        let file = k.open_path(1, AT_FDCWD, path.as_bytes(), g::O_RDONLY, 0).unwrap();
        let FileKind::Inode(id) = k.files.get(file).unwrap().kind else { panic!("{path} is no inode") };
        contents(&mut k, id).unwrap()
    };
    assert_eq!(text("/proc/self/oom_score_adj"), "-17\n");
    assert_eq!(text("/proc/self/wchan"), "0");
    assert!(text("/proc/loadavg").starts_with("0.00 0.00 0.00 1/1 "));
    let stat = text("/proc/self/stat");
    assert_eq!(fields(&stat)[11..15], ["300", "0", "0", "200"], "{stat}");
    assert_eq!(fields(&text("/proc/self/task/1/stat"))[11], "0");
    assert!(text("/proc/stat").starts_with("cpu  300 0 200 "));
    k.processes.get_mut(&1).unwrap().creds =
        crate::task::Creds { uid: 0, euid: 0, ..crate::task::Creds::user(1000, 1000) };
    let denied =
        |k: &mut Kernel, path: &[u8], flags| k.open_path(1, AT_FDCWD, path, flags, 0o644).unwrap_err();
    assert_eq!(denied(&mut k, b"/proc/self/fd/5", g::O_RDONLY), Errno::EACCES);
    assert_eq!(denied(&mut k, b"/new", g::O_CREAT | g::O_WRONLY), Errno::EACCES);
    assert_eq!(denied(&mut k, b"/dir/a", g::O_WRONLY), Errno::EACCES);
}

#[test]
fn a_task_does_not_leave_its_root() {
    let (_top, mut k) = tree();
    let file = k.open_path(0, AT_FDCWD, b"/file", g::O_RDONLY, 0).unwrap();
    process(&mut k, file);
    let dir = k.lookup_dir(0, b"/dir").unwrap();
    for (_, fs) in k.fs_contexts.iter_mut() {
        fs.root = dir;
        fs.cwd = dir;
    }
    for path in [&b"/../file"[..], b"../file", b"/file", b"sub/../../file", b"/out/../file"] {
        assert_eq!(k.open_path(1, AT_FDCWD, path, 0, 0).unwrap_err(), Errno::ENOENT);
    }
    assert!(k.open_path(1, AT_FDCWD, b"/../a", 0, 0).is_ok());
}

/// Every name refers to an inode that exists, and every inode of the in-memory layer has as many links as names.
fn check_tree(k: &Kernel) {
    let mut named = std::collections::BTreeMap::<InodeId, u64>::new();
    for (id, inode) in &k.vfs.inodes {
        let Kind::Dir(dir) = &inode.kind else { continue };
        for (name, dentry) in &dir.names {
            let present = dentry.cookie != 0;
            assert_eq!(present, dir.order.get(&dentry.cookie) == Some(name));
            if let super::inode::Target::Inode(child) = dentry.target {
                assert!(k.vfs.inodes.contains_key(&child), "{id}: {name:?} is dangling");
                *named.entry(child).or_default() += 1;
            }
        }
    }
    for (id, inode) in &k.vfs.inodes {
        if matches!(inode.kind, Kind::File(_)) {
            assert_eq!(named.get(id).copied().unwrap_or(0), inode.stat.nlink, "links of {id}");
        }
        if inode.is_dir() && *id != ROOT && !matches!(inode.kind, Kind::Synth(_)) {
            assert_eq!(named.get(id).copied().unwrap_or(0), 1, "names of directory {id}");
        }
    }
}

proptest! {
    #[test]
    fn any_series_of_changes_keeps_names_and_links_consistent(
        ops in prop::collection::vec((0..8_u8, 0..9_usize, 0..9_usize), 1..40),
    ) {
        const PATHS: [&str; 9] =
            ["/file", "/dir", "/dir/a", "/dir/sub", "/dir/sub/n", "/tmp/d", "/tmp/d/e", "/tmp/f", "/link"];
        let (top, mut k) = tree();
        for (op, a, b) in ops {
            let (a, b) = (PATHS[a].as_bytes(), PATHS[b].as_bytes());
            let (Ok(from), Ok(to)) = (k.resolve(0, AT_FDCWD, a, false), k.resolve(0, AT_FDCWD, b, false)) else {
                continue;
            };
            let _ = match op {
                0 => k.unlink(0, &from),
                1 => k.remove_dir(0, &from),
                2 => k.make_dir(0, &from, 0o755).map(drop),
                3 => k.rename(0, &from, &to, false, false),
                4 => k.rename(0, &from, &to, false, true),
                5 => from.inode.map_or(Ok(()), |id| k.link(0, id, &to)),
                6 => k.make_symlink(0, &from, b.to_vec()).map(drop),
                _ => k.open_path(0, AT_FDCWD, a, g::O_CREAT | g::O_RDWR, 0o644).map(|file| {
                    if let FileKind::Inode(id) = k.files.get(file).unwrap().kind {
                        k.inode_write(id, 5000, b"data").unwrap();
                        k.inode_open_count(id, -1);
                    }
                }),
            };
            check_tree(&k);
        }
        prop_assert_eq!(fs::read_to_string(top.path().join("root/file")).unwrap(), "lower");
    }

    #[test]
    fn no_path_reaches_the_secret_or_panics(
        parts in prop::collection::vec(
            prop_oneof![
                Just(b"..".to_vec()), Just(b".".to_vec()), Just(b"".to_vec()), Just(b"out".to_vec()),
                Just(b"out2".to_vec()), Just(b"dir".to_vec()), Just(b"abs".to_vec()), Just(b"secret".to_vec()),
                Just(b"loop1".to_vec()), Just(b"root".to_vec()), Just(b"proc".to_vec()), Just(b"self".to_vec()),
                prop::collection::vec(any::<u8>(), 0..8),
            ],
            0..8,
        ),
        flags in any::<u32>(),
    ) {
        let (_top, mut k) = tree();
        let path = parts.join(&b'/');
        for flags in [0, flags] {
            if let Ok(file) = k.open_path(0, AT_FDCWD, &path, flags, 0o777)
                && let FileKind::Inode(id) = k.files.get(file).unwrap().kind
                && let Ok(text) = contents(&mut k, id)
            {
                prop_assert!(!text.contains("secret"));
            }
        }
        let walk = k.resolve(0, AT_FDCWD, &path, false);
        if let Ok(walk) = walk {
            let _ = k.unlink(0, &walk);
            let _ = k.make_symlink(0, &walk, path.clone());
        }
        prop_assert_eq!(k.vfs.inode(ROOT).unwrap().file_type() == S_IFLNK, false);
    }
}

/// A walk over the whole tree of the host left an inode for each file of it.
#[test]
fn what_was_only_looked_at_is_forgotten() {
    let top = tempfile::tempdir().unwrap();
    for d in 0..10 {
        fs::create_dir(top.path().join(format!("d{d}"))).unwrap();
        for f in 0..20 {
            fs::write(top.path().join(format!("d{d}/f{f}")), format!("{d} {f}")).unwrap();
        }
    }
    let mut k = kernel(top.path());
    let path = |d: usize, f: usize| format!("/d{d}/f{f}");
    let find = |k: &mut Kernel, path: &str| {
        let walk = k.resolve(0, AT_FDCWD, path.as_bytes(), true).unwrap();
        k.existing(&walk).unwrap()
    };
    let mut numbers = Vec::new();
    for d in 0..10 {
        for f in 0..20 {
            let id = find(&mut k, &path(d, f));
            numbers.push(k.inode_stat(id).unwrap());
        }
    }
    let open_file = open(&mut k, "/d1/f1", g::O_RDONLY).unwrap();
    let changed = find(&mut k, "/d2/f2");
    k.vfs.inode_mut(changed).unwrap().stat.mode = super::inode::S_IFREG | 0o600;
    let walk = k.resolve(0, AT_FDCWD, b"/d3/f3", false).unwrap();
    k.unlink(0, &walk).unwrap();
    let written = k.open_path(0, AT_FDCWD, b"/d4/f4", g::O_RDWR | g::O_TRUNC, 0).unwrap();
    k.file_unref(written);

    let before = k.vfs.inodes.len();
    k.vfs.forget_at = 0;
    k.forget_idle_inodes();
    let after = k.vfs.inodes.len();
    assert!(before - after >= 190, "{before} to {after}");
    let mut text = [0; 8];
    assert_eq!(k.inode_read(open_file, 0, &mut text).unwrap(), 3);
    assert_eq!(&text[..3], b"1 1");
    assert_eq!(find(&mut k, "/d2/f2"), changed);
    assert_eq!(k.inode_stat(changed).unwrap().mode & 0o777, 0o600);
    assert!(k.resolve(0, AT_FDCWD, b"/d3/f3", false).unwrap().inode.is_none());
    let emptied = find(&mut k, "/d4/f4");
    assert_eq!(k.inode_stat(emptied).unwrap().size, 0);
    for d in 5..10 {
        for f in 0..20 {
            let id = find(&mut k, &path(d, f));
            assert_eq!(k.inode_stat(id).unwrap(), numbers[d * 20 + f]);
        }
        let dir = find(&mut k, &format!("/d{d}"));
        assert_eq!(k.inode_readdir(dir, 0, 100).unwrap().len(), 22);
    }
}

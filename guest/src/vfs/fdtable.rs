//! Descriptor tables and the references that descriptors hold on open file descriptions.

use super::FileKind;
use crate::errno::Errno;
use crate::kernel::Kernel;
use crate::num::u64_of;
use crate::task::{Fd, FdTable, Tid};
use linux_raw_sys::general::{IN_CLOSE_NOWRITE, IN_CLOSE_WRITE};

/// RLIMIT_NOFILE.
const RLIMIT_NOFILE: u32 = 7;
/// What Linux allows when nothing was set.
const DEFAULT_NOFILE: u64 = 1024;
/// Descriptors are never numbered from here on, whatever the limit (/proc/sys/fs/nr_open).
const NR_OPEN: u64 = 1 << 20;

/// Bytes of the memory limit for each descriptor that may be open in the sandbox, all processes together; the table of a million takes
/// the host some 50 MiB.
const MEMORY_PER_DESCRIPTOR: u64 = 1024;

impl Kernel {
    /// Descriptors that may be open in the sandbox (/proc/sys/fs/file-max): the limit of each process is up to a million, and a fork
    /// copies its table.
    pub fn descriptor_limit(&self) -> u64 {
        (self.limits.memory / MEMORY_PER_DESCRIPTOR).clamp(1 << 16, 1 << 20)
    }

    /// Whether `more` descriptors may be opened. ENFILE.
    fn room_for_descriptors(&self, more: usize) -> Result<(), Errno> {
        let after = self.objects.descriptors.saturating_add(u64_of(more));
        if after > self.descriptor_limit() { Err(Errno::ENFILE) } else { Ok(()) }
    }

    /// First descriptor number that the task may not use.
    pub fn fd_limit(&self, tid: Tid) -> u32 {
        let soft =
            self.process_of(tid).and_then(|p| p.rlimits.get(&RLIMIT_NOFILE)).map_or(DEFAULT_NOFILE, |l| l.0);
        u32::try_from(soft.min(NR_OPEN)).unwrap_or(0)
    }

    /// The table of a task. EBADF when it has none.
    pub fn table_mut(&mut self, tid: Tid) -> Result<&mut FdTable, Errno> {
        let id = self.task(tid).map(|t| t.files).ok_or(Errno::EBADF)?;
        self.fd_tables.get_mut(id).ok_or(Errno::EBADF)
    }

    /// A descriptor's entry. EBADF.
    pub fn fd_entry(&self, tid: Tid, fd: i32) -> Result<Fd, Errno> {
        let table = self.task(tid).and_then(|t| self.fd_tables.get(t.files)).ok_or(Errno::EBADF)?;
        let fd = u32::try_from(fd).map_err(|_| Errno::EBADF)?;
        table.fds.get(&fd).copied().ok_or(Errno::EBADF)
    }

    /// The open file description behind a descriptor. EBADF.
    pub fn file_of(&self, tid: Tid, fd: i32) -> Result<u64, Errno> {
        self.fd_entry(tid, fd).map(|e| e.file)
    }

    /// The same of a descriptor that does more than name a file (O_PATH). EBADF.
    pub fn usable_file_of(&self, tid: Tid, fd: i32) -> Result<u64, Errno> {
        let file = self.file_of(tid, fd)?;
        if self.files.get(file).is_none_or(|f| f.flags & super::file::O_PATH != 0) {
            return Err(Errno::EBADF);
        }
        Ok(file)
    }

    /// Whether a descriptor is free. EMFILE, ENFILE.
    pub fn fd_is_free(&mut self, tid: Tid) -> Result<(), Errno> {
        let limit = self.fd_limit(tid);
        self.room_for_descriptors(1)?;
        if self.table_mut(tid)?.lowest_free(0) < limit { Ok(()) } else { Err(Errno::EMFILE) }
    }

    /// Puts a file into the lowest free descriptor, taking over the caller's reference. EMFILE (then the reference is dropped).
    pub fn install_fd(&mut self, tid: Tid, file: u64, cloexec: bool) -> Result<u32, Errno> {
        self.install_fd_from(tid, file, cloexec, 0)
    }

    /// As [`Kernel::install_fd`], at `from` or above.
    pub fn install_fd_from(&mut self, tid: Tid, file: u64, cloexec: bool, from: u32) -> Result<u32, Errno> {
        let limit = self.fd_limit(tid);
        let room = self.room_for_descriptors(1);
        let placed = self.table_mut(tid).and_then(|table| {
            let free = table.lowest_free(from);
            if free >= limit {
                return Err(Errno::EMFILE);
            }
            room?;
            table.put(free, Fd { file, cloexec });
            Ok(free)
        });
        match placed {
            Ok(_) => self.objects.descriptors += 1,
            Err(_) => self.file_unref(file),
        }
        placed
    }

    /// Closes a descriptor. EBADF.
    pub fn fd_close(&mut self, tid: Tid, fd: u32) -> Result<(), Errno> {
        let table = self.table_mut(tid)?;
        let entry = table.take(fd).ok_or(Errno::EBADF)?;
        self.descriptors_gone(1);
        self.posix_close(tid, entry.file);
        self.file_unref(entry.file);
        Ok(())
    }

    /// dup3: makes `new` refer to what `old` does. EBADF; the caller has refused equal numbers.
    pub fn fd_dup_to(&mut self, tid: Tid, old: i32, new: u32, cloexec: bool) -> Result<(), Errno> {
        if new >= self.fd_limit(tid) {
            return Err(Errno::EBADF);
        }
        let file = self.file_of(tid, old)?;
        self.room_for_descriptors(1)?;
        self.file_ref(file);
        let replaced = self.table_mut(tid)?.put(new, Fd { file, cloexec });
        match replaced {
            Some(entry) => {
                self.posix_close(tid, entry.file);
                self.file_unref(entry.file);
            }
            None => self.objects.descriptors += 1,
        }
        Ok(())
    }

    fn descriptors_gone(&mut self, n: usize) {
        self.objects.descriptors = self.objects.descriptors.saturating_sub(u64_of(n));
    }

    /// A process that closes any descriptor of a file gives up its locks there (fcntl(2)).
    fn posix_close(&mut self, tid: Tid, file: u64) {
        if let Some(table) = self.task(tid).map(|t| t.files) {
            self.dnotify_close(table, file);
        }
        if let Some(FileKind::Mqueue(id)) = self.files.get(file).map(|f| &f.kind)
            && let Some(pid) = self.task(tid).map(|t| t.pid)
        {
            let id = *id;
            self.mqueue_forget(pid, Some(id));
            return;
        }
        let Some(inode) = self.files.get(file).map(|f| f.kind.locked_as()) else { return };
        if let Some(pid) = self.task(tid).map(|t| t.pid) {
            self.lock_process_closed(pid, inode);
        }
    }

    /// One more reference to a file.
    pub fn file_ref(&mut self, file: u64) {
        if let Some(f) = self.files.get_mut(file) {
            f.refs += 1;
        }
    }

    /// One reference less; the last closes it.
    pub fn file_unref(&mut self, file: u64) {
        let Some(f) = self.files.get_mut(file) else { return };
        f.refs = f.refs.saturating_sub(1);
        if f.refs > 0 {
            if let (FileKind::Socket(_), refs) = (&f.kind, f.refs)
                && self.objects.net.is_adrift(file, refs)
            {
                self.socket_adrift();
            }
            return;
        }
        let Some(f) = self.files.remove(file) else { return };
        self.epoll_forget_file(file);
        self.notify_file(&f, if f.flags & 3 == 0 { IN_CLOSE_NOWRITE } else { IN_CLOSE_WRITE });
        self.dnotify_forget(file, f.kind.inode());
        self.lock_file_closed(f.kind.locked_as(), file);
        match f.kind {
            FileKind::Inode(inode) | FileKind::Device(_, inode) => self.inode_open_count(inode, -1),
            FileKind::Pipe { pipe, inode, .. } => {
                self.pipe_close(pipe, f.flags, inode.is_some());
                if let Some(inode) = inode {
                    self.inode_open_count(inode, -1);
                }
            }
            FileKind::EventFd(id) => {
                self.objects.eventfds.remove(id);
            }
            FileKind::Epoll(id) => self.epoll_destroy(id),
            FileKind::HostStream(id) => {
                self.objects.streams.remove(id);
            }
            FileKind::TimerFd(id) => self.timerfd_close(id),
            FileKind::Inotify(id) => self.inotify_close(id),
            FileKind::Fanotify(id) => self.fanotify_close(id),
            FileKind::Userfault(id) => self.userfault_close(id),
            FileKind::SignalFd(id) => {
                self.objects.signalfds.remove(id);
            }
            FileKind::Tty(end) => self.tty_close(&end),
            FileKind::PidFd(id) => {
                self.objects.pidfds.remove(id);
            }
            FileKind::Mqueue(id) => self.mqueue_close(id),
            FileKind::Socket(id) => self.socket_close(id),
            FileKind::Work => {}
        }
    }

    /// A new descriptor table with one user.
    pub fn fd_table_new(&mut self) -> u64 {
        self.fd_tables.insert(FdTable::of([]))
    }

    /// A copy of a descriptor table with one user (fork without CLONE_FILES). ENFILE.
    pub fn fd_table_copy(&mut self, table: u64) -> Result<u64, Errno> {
        self.fd_table_has_room(table)?;
        Ok(self.fd_table_copy_anyway(table))
    }

    /// A copy for a new process (fork without CLONE_FILES): without the work channel, whose requests and answers are those of the process that
    /// was started with it. A child that went on in the runtime's loop would answer its parent's next request. ENFILE.
    pub fn fd_table_fork(&mut self, table: u64) -> Result<u64, Errno> {
        let copy = self.fd_table_copy(table)?;
        let fds = self.fd_tables.get(copy).map(|t| t.fds.clone()).unwrap_or_default();
        let work = |file| self.files.get(file).is_some_and(|f| f.kind == FileKind::Work);
        let dropped: Vec<u32> = fds.into_iter().filter(|(_, e)| work(e.file)).map(|(fd, _)| fd).collect();
        for fd in dropped {
            let Some(entry) = self.fd_tables.get_mut(copy).and_then(|t| t.take(fd)) else { continue };
            self.descriptors_gone(1);
            self.file_unref(entry.file);
        }
        Ok(copy)
    }

    /// Whether a table may be copied. ENFILE.
    pub fn fd_table_has_room(&self, table: u64) -> Result<(), Errno> {
        self.room_for_descriptors(self.fd_tables.get(table).map_or(0, |t| t.fds.len()))
    }

    fn fd_table_copy_anyway(&mut self, table: u64) -> u64 {
        let mut copy = self.fd_tables.get(table).cloned().unwrap_or_default();
        copy.refs = 1;
        self.objects.descriptors += u64_of(copy.fds.len());
        for entry in copy.fds.values() {
            self.file_ref(entry.file);
        }
        self.fd_tables.insert(copy)
    }

    /// One user less of a descriptor table; the last closes its descriptors.
    pub fn fd_table_release(&mut self, table: u64) {
        let Some(t) = self.fd_tables.get_mut(table) else { return };
        t.refs = t.refs.saturating_sub(1);
        if t.refs > 0 {
            return;
        }
        let fds = self.fd_tables.remove(table).map(|t| t.fds).unwrap_or_default();
        self.descriptors_gone(fds.len());
        for entry in fds.values() {
            self.dnotify_close(table, entry.file);
            self.file_unref(entry.file);
        }
    }

    /// execve: makes the table the task's own and closes FD_CLOEXEC descriptors.
    pub fn fd_table_exec(&mut self, tid: Tid) {
        let Some(mut id) = self.task(tid).map(|t| t.files) else { return };
        if self.fd_tables.get(id).is_some_and(|t| t.refs > 1) {
            // The table was one of few shared by threads that are gone by now, so there is room for a copy; without it the new program
            // would have none at all.
            let copy = self.fd_table_copy_anyway(id);
            self.fd_table_release(id);
            id = copy;
            if let Some(task) = self.task_mut(tid) {
                task.files = id;
            }
        }
        let Some(table) = self.fd_tables.get_mut(id) else { return };
        let closing: Vec<u32> = table.fds.iter().filter(|(_, e)| e.cloexec).map(|(n, _)| *n).collect();
        let gone: Vec<u64> = closing.into_iter().filter_map(|n| table.take(n)).map(|e| e.file).collect();
        self.descriptors_gone(gone.len());
        for file in gone {
            self.posix_close(tid, file);
            self.file_unref(file);
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::errno::Errno;
    use crate::kernel::{Kernel, Limits};
    use crate::platform::fake::FakePlatform;
    use proptest::prelude::*;

    fn kernel() -> Kernel {
        let mut k = Kernel::new(std::sync::Arc::new(FakePlatform::new(64 << 20)), Limits::default()).unwrap();
        let files = k.fd_table_new();
        crate::exec::test_task(&mut k, 1, 0, files, 0);
        k
    }

    proptest! {
        #[test]
        fn a_new_descriptor_is_the_lowest_free_one(ops in prop::collection::vec((0u32..4, 0u32..40), 1..120)) {
            let mut k = kernel();
            let mut model = std::collections::BTreeSet::new();
            for (op, n) in ops {
                match op {
                    0 => prop_assert_eq!(k.fd_close(1, n).is_ok(), model.remove(&n)),
                    1 => {
                        let from = (n..).find(|fd| !model.contains(fd)).unwrap();
                        let file = k.epoll_create_file();
                        prop_assert_eq!(k.install_fd_from(1, file, false, n), Ok(from));
                        model.insert(from);
                    }
                    _ => {
                        let lowest = (0..).find(|fd| !model.contains(fd)).unwrap();
                        let file = k.epoll_create_file();
                        prop_assert_eq!(k.install_fd(1, file, false), Ok(lowest));
                        model.insert(lowest);
                    }
                }
            }
        }
    }

    /// A process may have a million descriptors and a sandbox many processes: without a limit for all of them the copies of a fork bomb
    /// filled the host's memory.
    #[test]
    fn all_tables_together_have_a_limit() {
        let mut k = kernel();
        let most = k.descriptor_limit();
        assert_eq!(most, 1 << 20);
        k.limits.memory = 64 << 20;
        assert_eq!(k.descriptor_limit(), 1 << 16);
        k.process_of_mut(1).unwrap().rlimits.insert(7, (1 << 20, 1 << 20));
        let file = k.epoll_create_file();
        for _ in 0..40_000 {
            k.file_ref(file);
            k.install_fd(1, file, false).unwrap();
        }
        let table = k.task(1).unwrap().files;
        assert_eq!(k.fd_table_copy(table), Err(Errno::ENFILE));
        for _ in 40_000..1 << 16 {
            k.file_ref(file);
            k.install_fd(1, file, false).unwrap();
        }
        k.file_ref(file);
        assert_eq!(k.install_fd(1, file, false), Err(Errno::ENFILE));
        assert_eq!(k.fd_dup_to(1, 0, 70_000, false), Err(Errno::ENFILE));
        k.fd_close(1, 5).unwrap();
        k.file_ref(file);
        assert_eq!(k.install_fd(1, file, false), Ok(5));
        k.fd_table_release(table);
        assert_eq!(k.objects.descriptors, 0);
    }

    #[test]
    fn a_forked_process_has_no_work_channel() {
        let mut k = kernel();
        let work = k.files.insert(crate::vfs::OpenFile {
            kind: crate::vfs::FileKind::Work,
            flags: 2,
            pos: 0,
            refs: 2,
        });
        let other = k.epoll_create_file();
        for (fd, file) in [(3, work), (4, other), (9, work)] {
            assert_eq!(k.install_fd_from(1, file, false, fd), Ok(fd));
        }
        let table = k.task(1).unwrap().files;
        let copy = k.fd_table_fork(table).unwrap();
        let numbers =
            |k: &Kernel, table| k.fd_tables.get(table).unwrap().fds.keys().copied().collect::<Vec<_>>();
        assert_eq!((numbers(&k, table), numbers(&k, copy)), (vec![3, 4, 9], vec![4]));
        k.fd_table_release(copy);
        k.fd_table_release(table);
        assert_eq!(k.objects.descriptors, 0);
        assert!(k.files.get(work).is_none() && k.files.get(other).is_none());
    }

    /// With 100,000 descriptors open, a hole that opens and closes low, and numbers asked for high up: walking over those in between
    /// made each call as long as the table.
    #[test]
    fn a_full_table_is_not_walked_for_the_next_free_number() {
        let mut k = kernel();
        k.process_of_mut(1).unwrap().rlimits.insert(7, (1 << 20, 1 << 20));
        let file = k.epoll_create_file();
        let open = |k: &mut Kernel, from: u32| {
            k.file_ref(file);
            k.install_fd_from(1, file, false, from)
        };
        for want in 0..100_000 {
            assert_eq!(open(&mut k, 0), Ok(want));
        }
        let started = std::time::Instant::now();
        for i in 0..100_000 {
            k.fd_close(1, 7).unwrap();
            assert_eq!(open(&mut k, 0), Ok(7));
            assert_eq!(open(&mut k, 10), Ok(100_000 + i));
        }
        assert!(started.elapsed().as_secs() < 60);
    }

    /// 300,000 descriptors one by one: walking the table for each took minutes.
    #[test]
    fn opening_very_many_descriptors_takes_time_in_proportion() {
        let mut k = kernel();
        k.process_of_mut(1).unwrap().rlimits.insert(7, (1 << 20, 1 << 20));
        let file = k.epoll_create_file();
        let started = std::time::Instant::now();
        for want in 0..300_000 {
            k.file_ref(file);
            assert_eq!(k.install_fd(1, file, false), Ok(want));
        }
        assert!(started.elapsed().as_secs() < 60);
    }
}

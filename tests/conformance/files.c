// Files: open flags, FIFOs, links, rename, permissions, O_TMPFILE, holes, seeking, fallocate, statx, times, openat2, positions.
#include "check.h"
#include <dirent.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/falloc.h>
#include <linux/openat2.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>

#ifndef SYS_fchmodat2
#define SYS_fchmodat2 452
#endif
#define COUNT(a) (sizeof(a) / sizeof *(a))

static void put(const char *path, const char *text) {
    int fd = open(path, O_CREAT | O_WRONLY | O_TRUNC, 0644);
    if (fd < 0 || write(fd, text, strlen(text)) != (ssize_t)strlen(text))
        exit(98);
    close(fd);
}

static void *volatile nowhere = (void *)8;
static volatile int too_many = 1025;

static struct stat status(const char *path) {
    struct stat s;
    memset(&s, 0, sizeof s);
    lstat(path, &s);
    return s;
}

// Opening what there is in every way, and closing it again.
static void open_flags(void) {
    mkdir("dir", 0755);
    put("file", "content");
    symlink("file", "link");
    symlink("missing", "dangling");
    symlink("dir", "dirlink");
    symlink("loop", "loop");
    static const char *paths[] = {"file", "dir", "link", "dangling", "dirlink", "loop", "missing", "file/", "dir/", "link/", "missing/",
                                  "file/x", "missing/x", "", "dir/.", "dir/.."};
    static const struct { const char *name; int flags; } flags[] = {
        {"O_RDONLY", O_RDONLY}, {"O_WRONLY", O_WRONLY}, {"O_RDWR", O_RDWR}, {"O_DIRECTORY", O_DIRECTORY}, {"O_NOFOLLOW", O_NOFOLLOW},
        {"O_PATH", O_PATH}, {"O_PATH|O_NOFOLLOW", O_PATH | O_NOFOLLOW}, {"O_PATH|O_DIRECTORY", O_PATH | O_DIRECTORY},
        {"O_CREAT|O_EXCL", O_CREAT | O_EXCL | O_WRONLY}, {"O_CREAT|O_DIRECTORY", O_CREAT | O_DIRECTORY}, {"O_TMPFILE|O_RDONLY", O_TMPFILE},
        {"O_NOATIME", O_NOATIME}, {"O_APPEND|O_TRUNC", O_RDWR | O_APPEND | O_TRUNC}};
    for (size_t p = 0; p < COUNT(paths); p++)
        for (size_t f = 0; f < COUNT(flags); f++) {
            int fd = WORKS(CASE("open \"%s\" %s", paths[p], flags[f].name), open(paths[p], flags[f].flags, 0600));
            if (fd >= 0) {
                if (flags[f].flags & O_EXCL)
                    unlink(paths[p]);
                close(fd);
            }
        }
    RESULT("creating through a dangling link", (put("dangling", "x"), status("missing").st_size));
    unlink("missing");
    int fd = open("file", O_RDWR | O_APPEND | O_NONBLOCK);
    show("F_GETFL", "%o", fcntl(fd, F_GETFL));
    RESULT("F_SETFL 0", fcntl(fd, F_SETFL, 0));
    show("F_GETFL after", "%o", fcntl(fd, F_GETFL));
    close(fd);
    RESULT("closed", close(fd));
}

static void path_descriptors(void) {
    put("p", "12345");
    int fd = open("p", O_PATH);
    char b[16];
    struct stat s;
    RESULT("O_PATH read", read(fd, b, 1));
    RESULT("O_PATH write", write(fd, b, 1));
    RESULT("O_PATH lseek", lseek(fd, 0, SEEK_SET));
    RESULT("O_PATH fstat", fstat(fd, &s));
    RESULT("O_PATH fchmod", fchmod(fd, 0600));
    RESULT("O_PATH fchown", fchown(fd, 0, 0));
    RESULT("O_PATH ftruncate", ftruncate(fd, 1));
    RESULT("O_PATH fsync", fsync(fd));
    RESULT("O_PATH ioctl", ioctl(fd, FIONREAD, b));
    RESULT("O_PATH F_GETFD", fcntl(fd, F_GETFD));
    show("O_PATH F_GETFL", "%o", fcntl(fd, F_GETFL));
    RESULT("O_PATH F_SETFL", fcntl(fd, F_SETFL, 0));
    RESULT("O_PATH mmap", mmap(0, 4096, PROT_READ, MAP_PRIVATE, fd, 0) == MAP_FAILED ? -1 : 0);
    RESULT("O_PATH fchdir of a file", fchdir(fd));
    RESULT("O_PATH fallocate", fallocate(fd, 0, 0, 1));
    RESULT("O_PATH futimens", futimens(fd, NULL));
    RESULT("O_PATH flock", flock(fd, 2));
    RESULT("O_PATH pread", pread(fd, b, 1, 0));
    RESULT("O_PATH linkat by AT_EMPTY_PATH", linkat(fd, "", AT_FDCWD, "p2", AT_EMPTY_PATH));
    show("links", "%d", (int)status("p").st_nlink);
    char self[64];
    sprintf(self, "/proc/self/fd/%d", fd);
    int again = WORKS("reopened through proc", open(self, O_RDWR));
    RESULT("which can be read", read(again, b, 16));
    close(again);
    close(fd);
    fd = open("dir", O_PATH | O_DIRECTORY);
    RESULT("O_PATH fchdir of a directory", fchdir(fd));
    chdir(scratch_path);
    RESULT("O_PATH as dirfd", faccessat(fd, ".", R_OK, 0));
    close(fd);
    fd = open("link", O_PATH | O_NOFOLLOW);
    RESULT("readlinkat of an O_PATH link", readlinkat(fd, "", b, sizeof b));
    RESULT("readlinkat of nothing", readlinkat(AT_FDCWD, "", b, sizeof b));
    RESULT("readlink of a file", readlink("p", b, sizeof b));
    RESULT("readlink with size 0", readlink("link", b, 0));
    RESULT("readlink cut", readlink("link", b, 2));
    close(fd);
}

static void *late_writer(void *path) {
    usleep(30000);
    int fd = open(path, O_WRONLY);
    write(fd, "late", 4);
    close(fd);
    return NULL;
}

static void *late_reader(void *path) {
    usleep(30000);
    int fd = open(path, O_RDONLY);
    char b[8];
    long n = read(fd, b, 8);
    close(fd);
    return (void *)n;
}

static void on_alarm(int s) { (void)s; }

static void fifos(void) {
    RESULT("mkfifo", mkfifo("fifo", 0640));
    RESULT("mkfifo again", mkfifo("fifo", 0640));
    show("its mode", "%o", status("fifo").st_mode);
    RESULT("O_WRONLY|O_NONBLOCK without a reader", open("fifo", O_WRONLY | O_NONBLOCK));
    int r = WORKS("O_RDONLY|O_NONBLOCK without a writer", open("fifo", O_RDONLY | O_NONBLOCK));
    char b[70000];
    struct pollfd p = {r, POLLIN, 0};
    RESULT("read without a writer", read(r, b, 5));
    RESULT("poll before any writer", poll(&p, 1, 0));
    show("revents", "%x", p.revents);
    int w = WORKS("O_WRONLY|O_NONBLOCK with a reader", open("fifo", O_WRONLY | O_NONBLOCK));
    RESULT("read when empty", read(r, b, 5));
    RESULT("write", write(w, "hello", 5));
    RESULT("poll with data", poll(&p, 1, 0));
    show("revents", "%x", p.revents);
    struct stat s;
    fstat(r, &s);
    show("fstat is the name's", "%d", s.st_ino == status("fifo").st_ino && S_ISFIFO(s.st_mode));
    RESULT("lseek", lseek(r, 0, SEEK_SET));
    RESULT("read", read(r, b, 100));
    close(w);
    RESULT("poll after the writer went", poll(&p, 1, 0));
    show("revents", "%x", p.revents);
    RESULT("read after the writer went", read(r, b, 5));
    close(r);
    int rw = WORKS("O_RDWR", open("fifo", O_RDWR | O_NONBLOCK));
    RESULT("write into itself", write(rw, "self", 4));
    RESULT("read from itself", read(rw, b, 10));
    RESULT("and no more", read(rw, b, 10));
    p.fd = rw, p.events = POLLIN | POLLOUT;
    RESULT("poll of both", poll(&p, 1, 0));
    show("revents", "%x", p.revents);
    write(rw, "stale", 5);
    close(rw);
    r = open("fifo", O_RDONLY | O_NONBLOCK);
    RESULT("the last close empties it", read(r, b, 5));
    close(r);
    pthread_t t;
    pthread_create(&t, 0, late_writer, "fifo");
    r = WORKS("open waits for a writer", open("fifo", O_RDONLY));
    RESULT("and reads what it wrote", read(r, b, 10));
    RESULT("to its end", read(r, b, 10));
    pthread_join(t, 0);
    close(r);
    pthread_create(&t, 0, late_reader, "fifo");
    w = WORKS("open waits for a reader", open("fifo", O_WRONLY));
    RESULT("and writes to it", write(w, "abc", 3));
    void *got;
    close(w);
    pthread_join(t, &got);
    show("which got", "%ld", (long)got);
    struct sigaction sa = {.sa_handler = on_alarm};
    sigaction(SIGALRM, &sa, 0);
    ualarm(20000, 0);
    RESULT("a signal ends the wait", open("fifo", O_RDONLY));
    RESULT("nobody waits after it", open("fifo", O_WRONLY | O_NONBLOCK));
    RESULT("truncate", truncate("fifo", 0));
    RESULT("unlink", unlink("fifo"));
    RESULT("mknod of a fifo", mknod("fifo2", S_IFIFO | 0600, 0));
    RESULT("mknod of a socket", mknod("sock", S_IFSOCK | 0600, 0));
    RESULT("mknod of a file", mknod("plain", S_IFREG | 0600, 0));
    RESULT("mknod without a type", mknod("plain2", 0600, 0));
    RESULT("mknod of a directory", mknod("d", S_IFDIR | 0600, 0));
    RESULT("mknod of a link", mknod("d", S_IFLNK | 0600, 0));
    RESULT("mknod over a name", mknod("plain", S_IFREG | 0600, 0));
    RESULT("opening a socket", open("sock", O_RDWR));
    RESULT("a socket as O_PATH", open("sock", O_PATH) > 0);
    show("modes", "%o %o %o %o", status("fifo2").st_mode, status("sock").st_mode, status("plain").st_mode, status("plain2").st_mode);
}

static void names(void) {
    put("a", "a");
    RESULT("link", link("a", "b"));
    RESULT("link over a name", link("a", "b"));
    RESULT("link of a directory", link("dir", "dir2"));
    RESULT("link of nothing", link("nothing", "x"));
    RESULT("link with a slash", link("a", "x/"));
    show("links", "%d", (int)status("a").st_nlink);
    RESULT("link of a link", link("link", "hardlink"));
    show("is a link", "%d", S_ISLNK(status("hardlink").st_mode));
    RESULT("AT_SYMLINK_FOLLOW", linkat(AT_FDCWD, "link", AT_FDCWD, "followed", AT_SYMLINK_FOLLOW));
    show("is a file", "%d", S_ISREG(status("followed").st_mode));
    RESULT("linkat with a bad flag", linkat(AT_FDCWD, "a", AT_FDCWD, "c", 1));
    RESULT("rename onto itself by another name", rename("a", "b"));
    show("both names stay", "%d", (int)status("a").st_nlink);
    RESULT("unlink", unlink("b"));
    RESULT("unlink of a directory", unlink("dir"));
    RESULT("unlink with a slash", unlink("a/"));
    RESULT("unlinkat with a bad flag", unlinkat(AT_FDCWD, "a", 1));
    RESULT("rename", rename("a", "c"));
    RESULT("rename of nothing", rename("a", "c"));
    RESULT("rename over a directory", rename("c", "dir"));
    RESULT("rename a directory over a file", rename("dir", "c"));
    RESULT("rename into itself", rename("dir", "dir/sub"));
    RESULT("rename to a slash", rename("c", "new/"));
    RESULT("rename from a slash", rename("c/", "new"));
    RESULT("rename .", rename(".", "x"));
    RESULT("rename ..", rename("dir/..", "x"));
    RESULT("rename to .", rename("dir", "."));
    put("d", "d");
    RESULT("RENAME_NOREPLACE over a name", renameat2(AT_FDCWD, "c", AT_FDCWD, "d", RENAME_NOREPLACE));
    RESULT("RENAME_NOREPLACE", renameat2(AT_FDCWD, "c", AT_FDCWD, "e", RENAME_NOREPLACE));
    RESULT("RENAME_EXCHANGE", renameat2(AT_FDCWD, "dir", AT_FDCWD, "d", RENAME_EXCHANGE));
    show("exchanged", "%d %d", S_ISREG(status("dir").st_mode), S_ISDIR(status("d").st_mode));
    RESULT("exchanged back", renameat2(AT_FDCWD, "dir", AT_FDCWD, "d", RENAME_EXCHANGE));
    RESULT("RENAME_EXCHANGE with nothing", renameat2(AT_FDCWD, "d", AT_FDCWD, "none", RENAME_EXCHANGE));
    RESULT("both flags", renameat2(AT_FDCWD, "d", AT_FDCWD, "e", RENAME_EXCHANGE | RENAME_NOREPLACE));
    RESULT("unknown flag", renameat2(AT_FDCWD, "d", AT_FDCWD, "e", 64));
    char longest[300];
    memset(longest, 'n', sizeof longest);
    longest[255] = 0;
    RESULT("a name of 255 bytes", mkdir(longest, 0700));
    RESULT("and gone", rmdir(longest));
    longest[255] = 'n', longest[256] = 0;
    RESULT("a name of 256 bytes", mkdir(longest, 0700));
    RESULT("looked up", access(longest, F_OK));
    static char deep[5000];
    for (int i = 0; i + 2 < 4100; i += 2)
        memcpy(deep + i, "./", 3);
    RESULT("a path beyond PATH_MAX", access(deep, F_OK));
    deep[4094] = 0;
    RESULT("a path of 4094 bytes", access(deep, F_OK));
    RESULT("symlink with an empty target", symlink("", "s"));
    RESULT("symlink over a name", symlink("x", "c"));
    RESULT("symlink to an empty path", symlink("x", ""));
    RESULT("symlink over a dangling link", symlink("x", "dangling"));
    show("its length is its target's", "%d", (int)status("dangling").st_size);
}

static void holes(void) {
    int fd = open("holes", O_CREAT | O_RDWR | O_TRUNC, 0644);
    char b[8192];
    memset(b, 1, sizeof b);
    pwrite(fd, b, 4096, 8192);
    pwrite(fd, b, 100, 40960);
    show("size", "%ld", (long)lseek(fd, 0, SEEK_END));
    static const long at[] = {0, 1, 4096, 8191, 8192, 9000, 12287, 12288, 40959, 40960, 41059, 41060, 50000, -1};
    for (size_t i = 0; i < COUNT(at); i++) {
        RESULT(CASE("SEEK_DATA %ld", at[i]), lseek(fd, at[i], SEEK_DATA));
        RESULT(CASE("SEEK_HOLE %ld", at[i]), lseek(fd, at[i], SEEK_HOLE));
    }
    show("blocks", "%ld", (long)status("holes").st_blocks);
    RESULT("seek before the start", lseek(fd, -1, SEEK_SET));
    RESULT("seek by an unknown whence", lseek(fd, 0, 9));
    RESULT("seek far", lseek(fd, 1L << 40, SEEK_SET));
    RESULT("seek beyond all", lseek(fd, 0x7fffffffffffffff, SEEK_END));
    RESULT("read far beyond the end", read(fd, b, 10));
    RESULT("pread at a negative position", pread(fd, b, 1, -1));
    RESULT("PUNCH_HOLE without KEEP_SIZE", fallocate(fd, FALLOC_FL_PUNCH_HOLE, 0, 4096));
    RESULT("PUNCH_HOLE", fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 9000, 1000));
    pread(fd, b, 4096, 8192);
    show("the edges", "%d %d %d %d", b[807], b[808], b[1807], b[1808]);
    RESULT("PUNCH_HOLE of a page", fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 8192, 4096));
    RESULT("which is a hole then", lseek(fd, 0, SEEK_DATA));
    RESULT("PUNCH_HOLE beyond the end", fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 1 << 20, 4096));
    show("size stays", "%ld", (long)status("holes").st_size);
    RESULT("ZERO_RANGE over the end", fallocate(fd, FALLOC_FL_ZERO_RANGE, 40960, 8192));
    show("size grows", "%ld", (long)status("holes").st_size);
    pread(fd, b, 100, 40960);
    show("zeroed", "%d", b[50]);
    RESULT("mode 0", fallocate(fd, 0, 60000, 10000));
    show("size", "%ld", (long)status("holes").st_size);
    RESULT("KEEP_SIZE", fallocate(fd, FALLOC_FL_KEEP_SIZE, 80000, 10000));
    show("size", "%ld", (long)status("holes").st_size);
    RESULT("an empty range", fallocate(fd, 0, 0, 0));
    RESULT("a negative offset", fallocate(fd, 0, -1, 1));
    RESULT("beyond all", fallocate(fd, 0, 0x7fffffffffffffff, 1));
    RESULT("an unknown mode", fallocate(fd, 1 << 20, 0, 1));
    close(fd);
    fd = open("pages", O_CREAT | O_RDWR | O_TRUNC, 0644);
    for (int i = 0; i < 4; i++) {
        memset(b, 'A' + i, 4096);
        write(fd, b, 4096);
    }
    RESULT("COLLAPSE_RANGE unaligned", fallocate(fd, FALLOC_FL_COLLAPSE_RANGE, 1, 4096));
    RESULT("COLLAPSE_RANGE to the end", fallocate(fd, FALLOC_FL_COLLAPSE_RANGE, 12288, 4096));
    RESULT("COLLAPSE_RANGE", fallocate(fd, FALLOC_FL_COLLAPSE_RANGE, 4096, 4096));
    pread(fd, b, 1, 4096);
    show("then", "%c %ld", b[0], (long)status("pages").st_size);
    RESULT("INSERT_RANGE at the end", fallocate(fd, FALLOC_FL_INSERT_RANGE, 12288, 4096));
    RESULT("INSERT_RANGE", fallocate(fd, FALLOC_FL_INSERT_RANGE, 4096, 4096));
    pread(fd, b, 1, 8192);
    show("then", "%c %ld", b[0], (long)status("pages").st_size);
    RESULT("with KEEP_SIZE", fallocate(fd, FALLOC_FL_INSERT_RANGE | FALLOC_FL_KEEP_SIZE, 4096, 4096));
    RESULT("the hole", lseek(fd, 0, SEEK_HOLE));
    RESULT("the data after it", lseek(fd, 4096, SEEK_DATA));
    close(fd);
    fd = open("pages", O_RDONLY);
    RESULT("fallocate of what is read only", fallocate(fd, 0, 0, 1));
    RESULT("ftruncate of what is read only", ftruncate(fd, 0));
    close(fd);
    fd = open(".", O_RDONLY);
    RESULT("fallocate of a directory", fallocate(fd, 0, 0, 1));
    RESULT("read of a directory", read(fd, b, 1));
    RESULT("ftruncate of a directory", ftruncate(fd, 0));
    close(fd);
    RESULT("truncate of a directory", truncate("dir", 0));
    RESULT("truncate to less than nothing", truncate("pages", -1));
    RESULT("truncate of nothing", truncate("nothing", 0));
    RESULT("truncate", truncate("pages", 5000));
    RESULT("and grow", truncate("pages", 10000));
    fd = open("pages", O_RDWR);
    pread(fd, b, 8192, 0);
    show("what was cut reads as zeroes", "%d", b[5000]);
    int p[2];
    pipe(p);
    RESULT("fallocate of a pipe", fallocate(p[1], 0, 0, 1));
    RESULT("SEEK_DATA of a pipe", lseek(p[0], 0, SEEK_DATA));
    RESULT("fadvise", posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED));
    RESULT("fadvise of a pipe", posix_fadvise(p[0], 0, 0, POSIX_FADV_DONTNEED));
    RESULT("fadvise unknown", posix_fadvise(fd, 0, 0, 77));
    RESULT("readahead", readahead(fd, 0, 4096));
    RESULT("readahead of a pipe", readahead(p[0], 0, 4096));
    RESULT("sync_file_range", sync_file_range(fd, 0, 0, SYNC_FILE_RANGE_WRITE));
    RESULT("sync_file_range unknown", sync_file_range(fd, 0, 0, 64));
    RESULT("sync_file_range of a pipe", sync_file_range(p[0], 0, 0, 0));
    RESULT("fsync", fsync(fd));
    RESULT("fsync of a pipe", fsync(p[0]));
    RESULT("fdatasync", fdatasync(fd));
    RESULT("syncfs", syncfs(fd));
    close(fd);
}

static void vectors(void) {
    put("v", "0123456789");
    int fd = open("v", O_RDWR);
    char a[4], b[4], c[8];
    struct iovec v[3] = {{a, 4}, {NULL, 0}, {b, 4}};
    RESULT("readv", readv(fd, v, 3));
    show("got", "%.4s %.4s", a, b);
    RESULT("preadv", preadv(fd, v, 3, 8));
    RESULT("preadv2 at the file's own position", preadv2(fd, v, 3, -1, 0));
    RESULT("preadv2 at -2", preadv2(fd, v, 3, -2, 0));
    RESULT("preadv2 with RWF_NOWAIT", preadv2(fd, v, 3, 0, RWF_NOWAIT));
    RESULT("preadv2 with RWF_HIPRI", preadv2(fd, v, 3, 0, RWF_HIPRI));
    RESULT("preadv2 with an unknown flag", preadv2(fd, v, 3, 0, 1 << 20));
    RESULT("readv of nothing", readv(fd, v, 0));
    RESULT("readv of too many", readv(fd, v, too_many));
    struct iovec bad[2] = {{a, 4}, {b, -1}};
    RESULT("readv of a negative length", readv(fd, bad, 2));
    lseek(fd, 0, SEEK_SET);
    struct iovec w[2] = {{"AB", 2}, {"CD", 2}};
    RESULT("writev", writev(fd, w, 2));
    RESULT("pwritev", pwritev(fd, w, 2, 20));
    RESULT("pwritev2 with RWF_APPEND", pwritev2(fd, w, 2, 0, RWF_APPEND));
    show("size", "%ld", (long)status("v").st_size);
    RESULT("pwritev2 with RWF_DSYNC", pwritev2(fd, w, 2, 0, RWF_DSYNC));
    RESULT("the position is where it was", lseek(fd, 0, SEEK_CUR));
    RESULT("pwritev2 with RWF_APPEND at the file's position", pwritev2(fd, w, 2, -1, RWF_APPEND));
    RESULT("the position moved", lseek(fd, 0, SEEK_CUR));
    close(fd);
    fd = open("v", O_WRONLY | O_APPEND);
    RESULT("pwrite to O_APPEND", pwrite(fd, "Z", 1, 0));
    show("went to the end", "%ld", (long)status("v").st_size);
    RESULT("read of what is write only", read(fd, c, 1));
    close(fd);
    fd = open("v", O_RDONLY);
    pread(fd, c, 4, 0);
    show("the start", "%.4s", c);
    RESULT("write to what is read only", write(fd, c, 1));
    RESULT("read into nowhere", read(fd, nowhere, 4));
    RESULT("read of nothing into nowhere", read(fd, nowhere, 0));
    close(fd);
    int p[2];
    pipe(p);
    struct iovec one = {a, 4};
    RESULT("preadv2 of an empty pipe with RWF_NOWAIT", preadv2(p[0], &one, 1, -1, RWF_NOWAIT));
    RESULT("preadv2 of a pipe at a position", preadv2(p[0], &one, 1, 0, 0));
}

static void temporary(void) {
    int fd = WORKS("O_TMPFILE", open(".", O_TMPFILE | O_RDWR, 0640));
    struct stat s;
    fstat(fd, &s);
    show("links and mode", "%d %o", (int)s.st_nlink, s.st_mode);
    write(fd, "tmp", 3);
    char self[64];
    sprintf(self, "/proc/self/fd/%d", fd);
    RESULT("linked by proc", linkat(AT_FDCWD, self, AT_FDCWD, "named", AT_SYMLINK_FOLLOW));
    show("named", "%d %d", (int)status("named").st_nlink, (int)status("named").st_size);
    RESULT("linked by AT_EMPTY_PATH", linkat(fd, "", AT_FDCWD, "named2", AT_EMPTY_PATH));
    unlink("named");
    unlink("named2");
    RESULT("linked after all names went", linkat(fd, "", AT_FDCWD, "named3", AT_EMPTY_PATH));
    close(fd);
    fd = open(".", O_TMPFILE | O_RDWR | O_EXCL, 0600);
    RESULT("O_EXCL cannot be linked", linkat(fd, "", AT_FDCWD, "named4", AT_EMPTY_PATH));
    close(fd);
    RESULT("O_TMPFILE in a file", open("v", O_TMPFILE | O_RDWR, 0600));
    put("gone", "still here");
    fd = open("gone", O_RDWR);
    unlink("gone");
    fstat(fd, &s);
    show("unlinked while open", "%d", (int)s.st_nlink);
    char b[16];
    RESULT("still read", read(fd, b, 16));
    RESULT("still written", pwrite(fd, "x", 1, 100));
    RESULT("through proc", open((sprintf(self, "/proc/self/fd/%d", fd), self), O_RDONLY) > 0);
    RESULT("not linked again", linkat(AT_FDCWD, self, AT_FDCWD, "again", AT_SYMLINK_FOLLOW));
    close(fd);
}

static void attributes(void) {
    put("attr", "x");
    struct statx x;
    RESULT("statx", statx(AT_FDCWD, "attr", 0, STATX_ALL | STATX_MNT_ID, &x));
    show("mask", "%x", x.stx_mask & (STATX_ALL | STATX_MNT_ID));
    struct stat s = status("attr");
    CHECK("statx is stat", x.stx_ino == s.st_ino && x.stx_size == 1 && x.stx_mode == s.st_mode && x.stx_nlink == 1);
    CHECK("born before now and not before ever", x.stx_btime.tv_sec > 1000000000 && x.stx_btime.tv_sec <= time(0));
    CHECK("device", makedev(x.stx_dev_major, x.stx_dev_minor) == s.st_dev);
    RESULT("statx reserved mask", statx(AT_FDCWD, "attr", 0, 0x80000000, &x));
    RESULT("statx both sync flags", statx(AT_FDCWD, "attr", AT_STATX_FORCE_SYNC | AT_STATX_DONT_SYNC, 0, &x));
    RESULT("statx unknown flag", statx(AT_FDCWD, "attr", 1, 0, &x));
    RESULT("statx of a descriptor", statx(0, "", AT_EMPTY_PATH, STATX_TYPE, &x));
    RESULT("statx of an empty path", statx(AT_FDCWD, "", 0, 0, &x));
    static const int modes[] = {0, 0777, 04755, 02755, 01777, 07777, 010000, 0200000644};
    for (size_t i = 0; i < COUNT(modes); i++) {
        RESULT(CASE("chmod %o", modes[i]), chmod("attr", modes[i]));
        show("mode", "%o", status("attr").st_mode);
    }
    chmod("attr", 06777);
    RESULT("chown", chown("attr", 0, 0));
    show("set-id bits after chown", "%o", status("attr").st_mode);
    chmod("attr", 06767);
    RESULT("chown -1", chown("attr", -1, 0));
    show("without group execution", "%o", status("attr").st_mode);
    RESULT("chown 12 34", chown("attr", 12, 34));
    show("owner", "%d %d", status("attr").st_uid, status("attr").st_gid);
    RESULT("lchown of a link", lchown("link", 5, 6));
    show("owner of the link", "%d, of the file %d", status("link").st_uid, status("file").st_uid);
    RESULT("fchmodat of a link", syscall(SYS_fchmodat2, AT_FDCWD, "link", 0600, AT_SYMLINK_NOFOLLOW));
    RESULT("fchmodat2 with an unknown flag", syscall(SYS_fchmodat2, AT_FDCWD, "link", 0600, 1));
    RESULT("fchmodat2 of a descriptor", syscall(SYS_fchmodat2, open("attr", O_PATH), "", 0604, AT_EMPTY_PATH));
    show("mode", "%o", status("attr").st_mode);
    struct timespec t[2] = {{1000, 5}, {2000, 999999999}};
    RESULT("utimensat", utimensat(AT_FDCWD, "attr", t, 0));
    s = status("attr");
    show("times", "%ld.%ld %ld.%ld", s.st_atim.tv_sec, s.st_atim.tv_nsec, s.st_mtim.tv_sec, s.st_mtim.tv_nsec);
    t[0].tv_nsec = UTIME_OMIT, t[1].tv_sec = -5, t[1].tv_nsec = 7;
    RESULT("utimensat omit and before 1970", utimensat(AT_FDCWD, "attr", t, 0));
    s = status("attr");
    show("times", "%ld.%ld %ld.%ld", s.st_atim.tv_sec, s.st_atim.tv_nsec, s.st_mtim.tv_sec, s.st_mtim.tv_nsec);
    t[1].tv_nsec = UTIME_OMIT;
    RESULT("both omitted of nothing", utimensat(AT_FDCWD, "nothing", t, 0));
    t[0].tv_nsec = UTIME_NOW;
    RESULT("now and omit", utimensat(AT_FDCWD, "attr", t, 0));
    CHECK("access time is now", labs(status("attr").st_atim.tv_sec - time(0)) < 3);
    t[0].tv_nsec = 1000000000;
    RESULT("bad nanoseconds", utimensat(AT_FDCWD, "attr", t, 0));
    RESULT("bad flag", utimensat(AT_FDCWD, "attr", NULL, 1));
    RESULT("of a link", utimensat(AT_FDCWD, "link", NULL, AT_SYMLINK_NOFOLLOW));
    RESULT("null path", syscall(SYS_utimensat, AT_FDCWD, NULL, NULL, 0));
    s = status("attr");
    struct timespec before = s.st_ctim;
    usleep(20000);
    chmod("attr", 0600);
    s = status("attr");
    CHECK("chmod moves the change time", s.st_ctim.tv_sec > before.tv_sec || s.st_ctim.tv_nsec > before.tv_nsec);
    show("and not the modification time", "%ld", s.st_mtim.tv_sec);
    for (int mask = 0; mask <= 0777; mask += 0111) {
        umask(mask);
        close(open("masked", O_CREAT | O_RDWR, 0777));
        mkdir("maskeddir", 0777);
        mkfifo("maskedfifo", 0666);
        show(CASE("umask %o", mask), "%o %o %o", status("masked").st_mode, status("maskeddir").st_mode, status("maskedfifo").st_mode);
        unlink("masked"), rmdir("maskeddir"), unlink("maskedfifo");
    }
    umask(022);
}

static void within(void) {
    mkdir("root", 0755), mkdir("root/sub", 0755), mkdir("root/sub/deep", 0755);
    put("root/file", "r"), put("outside", "o");
    symlink("file", "root/rel"), symlink("/file", "root/abs"), symlink("../outside", "root/out"), symlink("..", "root/up");
    symlink("../file", "root/sub/upfile"), symlink("/proc/self/exe", "root/magic"), symlink("../../root/file", "root/sub/around");
    int dir = open("root", O_PATH | O_DIRECTORY);
    static const char *paths[] = {"file", "rel", "abs", "out", "up", "sub/upfile", "sub/around", "magic", "..", "sub/..", "sub/../..",
                                  "/file", "sub/deep/../../file", "missing", "/"};
    static const struct { const char *name; int bits; } ways[] = {{"BENEATH", RESOLVE_BENEATH}, {"IN_ROOT", RESOLVE_IN_ROOT},
        {"NO_SYMLINKS", RESOLVE_NO_SYMLINKS}, {"NO_MAGICLINKS", RESOLVE_NO_MAGICLINKS}, {"none", 0}};
    for (size_t w = 0; w < COUNT(ways); w++)
        for (size_t p = 0; p < COUNT(paths); p++) {
            struct open_how how = {.flags = O_RDONLY, .resolve = ways[w].bits};
            int fd = WORKS(CASE("openat2 %s \"%s\"", ways[w].name, paths[p]), syscall(SYS_openat2, dir, paths[p], &how, sizeof how));
            if (fd >= 0)
                close(fd);
        }
    struct open_how how = {.flags = O_RDONLY, .resolve = RESOLVE_BENEATH | RESOLVE_IN_ROOT};
    RESULT("both scopes", syscall(SYS_openat2, dir, "file", &how, sizeof how));
    how.resolve = 64;
    RESULT("unknown bit", syscall(SYS_openat2, dir, "file", &how, sizeof how));
    how.resolve = 0, how.mode = 0600;
    RESULT("a mode without O_CREAT", syscall(SYS_openat2, dir, "file", &how, sizeof how));
    how.mode = 0, how.flags = 1UL << 40;
    RESULT("an unknown flag", syscall(SYS_openat2, dir, "file", &how, sizeof how));
    how.flags = O_RDONLY;
    RESULT("too small", syscall(SYS_openat2, dir, "file", &how, 16));
    RESULT("nowhere", syscall(SYS_openat2, dir, "file", 8, sizeof how));
    how.resolve = RESOLVE_NO_XDEV;
    RESULT("NO_XDEV into proc", syscall(SYS_openat2, AT_FDCWD, "/proc/self", &how, sizeof how));
    how.flags = O_CREAT | O_RDWR, how.mode = 0600, how.resolve = RESOLVE_BENEATH;
    int made = WORKS("making a file beneath", syscall(SYS_openat2, dir, "made", &how, sizeof how));
    close(made);
    how.resolve = RESOLVE_CACHED;
    RESULT("RESOLVE_CACHED and O_CREAT", syscall(SYS_openat2, dir, "made", &how, sizeof how));
    close(dir);
}

static int as_nobody(int (*what)(void)) {
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        if (setgroups(1, (gid_t[]){77}) || setgid(65534) || setuid(65534))
            _exit(97);
        _exit(what());
    }
    int st;
    waitpid(pid, &st, 0);
    return WEXITSTATUS(st);
}

static int try_modes(void) {
    static const char *who[] = {"own", "group", "other", "supplementary"};
    for (int w = 0; w < 4; w++)
        for (int mode = 0; mode <= 0777; mode += 0111) {
            char name[32];
            sprintf(name, "perm-%s-%o", who[w], mode);
            int r = open(name, O_RDONLY), wr = open(name, O_WRONLY);
            show(name, "read %d write %d access %d %d %d", r >= 0, wr >= 0, access(name, R_OK), access(name, W_OK), access(name, X_OK));
            close(r), close(wr);
        }
    RESULT("chmod of another's", chmod("perm-other-0", 0777));
    RESULT("chmod of the own", chmod("perm-own-0", 02777));
    show("keeps what the group allows", "%o", status("perm-own-0").st_mode);
    RESULT("chown of the own", chown("perm-own-111", 0, -1));
    RESULT("chgrp to a supplementary group", chown("perm-own-111", -1, 77));
    RESULT("chgrp to another group", chown("perm-own-111", -1, 78));
    RESULT("utimes of another's to now without writing", utimensat(AT_FDCWD, "perm-other-111", NULL, 0));
    RESULT("utimes of another's to now with writing", utimensat(AT_FDCWD, "perm-other-222", NULL, 0));
    struct timespec t[2] = {{1, 1}, {1, 1}};
    RESULT("utimes of another's to a time", utimensat(AT_FDCWD, "perm-other-222", t, 0));
    RESULT("unlink in a sticky directory of another's", unlink("sticky/root"));
    RESULT("unlink in a sticky directory of the own", unlink("sticky/mine"));
    RESULT("rename in a sticky directory of another's", rename("sticky/root", "sticky/x"));
    RESULT("replace in a sticky directory another's", (put("sticky/new", "n"), rename("sticky/new", "sticky/root")));
    RESULT("mkdir where it may not", mkdir("closed/x", 0700));
    RESULT("look where it may not", access("closed/inside", F_OK));
    RESULT("list where it may not", opendir("closed") ? 0 : -1);
    RESULT("list without search", opendir("unsearchable") ? 0 : -1);
    RESULT("look without search", access("unsearchable/in", F_OK));
    RESULT("search without list", access("unlistable/in", F_OK));
    RESULT("mknod of a device", mknod("open/dev", S_IFCHR | 0600, makedev(1, 3)));
    RESULT("mknod of 0, 0", mknod("open/whiteout", S_IFCHR | 0600, 0));
    RESULT("chroot", chroot("open"));
    RESULT("O_NOATIME of another's", open("perm-other-444", O_RDONLY | O_NOATIME));
    RESULT("mkdir in a set-group-id directory", mkdir("open/d", 0755));
    show("takes over group and bit", "%o %d", status("open/d").st_mode, status("open/d").st_gid);
    put("open/f", "f");
    show("a file takes over the group", "%o %d", status("open/f").st_mode, status("open/f").st_gid);
    put("sticky/big", "f");
    chmod("sticky/big", 06777);
    int fd = open("sticky/big", O_WRONLY);
    write(fd, "x", 1);
    show("a write takes the set-id bits away", "%o", status("sticky/big").st_mode);
    return 0;
}

static void permissions(void) {
    static const struct { const char *who; int uid, gid; } owners[] = {
        {"own", 65534, 0}, {"group", 0, 65534}, {"other", 0, 0}, {"supplementary", 0, 77}};
    chmod(".", 0755);
    for (int w = 0; w < 4; w++)
        for (int mode = 0; mode <= 0777; mode += 0111) {
            char name[32];
            sprintf(name, "perm-%s-%o", owners[w].who, mode);
            put(name, "x");
            chown(name, owners[w].uid, owners[w].gid);
            chmod(name, mode);
        }
    mkdir("sticky", 0777), chmod("sticky", 01777);
    put("sticky/root", "r"), put("sticky/mine", "m");
    chown("sticky/mine", 65534, 0);
    mkdir("closed", 0700), put("closed/inside", "x");
    mkdir("unsearchable", 0744), put("unsearchable/in", "x");
    mkdir("unlistable", 0711), put("unlistable/in", "x");
    mkdir("open", 0777), chown("open", 0, 123), chmod("open", 02777);
    show("as nobody", "%d", as_nobody(try_modes));
    RESULT("root may write what nobody may", open("perm-other-0", O_RDWR) >= 0);
    RESULT("root may not execute what nobody may", access("perm-other-0", X_OK));
    RESULT("root may execute what somebody may", access("perm-other-111", X_OK));
}

static void odds(void) {
    put("setid", "x");
    chmod("setid", 06777);
    int fd = open("setid", O_RDWR);
    write(fd, "y", 1);
    show("root's write leaves the set-id bits", "%o", status("setid").st_mode);
    struct rlimit old, l = {1000, 1000};
    getrlimit(RLIMIT_FSIZE, &old);
    signal(SIGXFSZ, SIG_IGN);
    l.rlim_max = old.rlim_max;
    setrlimit(RLIMIT_FSIZE, &l);
    RESULT("ftruncate beyond RLIMIT_FSIZE", ftruncate(fd, 1001));
    RESULT("truncate beyond RLIMIT_FSIZE", truncate("setid", 1001));
    RESULT("fallocate beyond RLIMIT_FSIZE", fallocate(fd, 0, 0, 1001));
    RESULT("ftruncate to RLIMIT_FSIZE", ftruncate(fd, 1000));
    RESULT("write at RLIMIT_FSIZE", pwrite(fd, "x", 1, 1000));
    RESULT("write over RLIMIT_FSIZE", pwrite(fd, "xy", 2, 999));
    setrlimit(RLIMIT_FSIZE, &old);
    close(fd);
    RESULT("lseek of an eventfd", lseek(eventfd(0, 0), 5, SEEK_SET));
    RESULT("lseek of an epoll", lseek(epoll_create1(0), 5, SEEK_SET));
    int pair[2];
    socketpair(AF_UNIX, SOCK_STREAM, 0, pair);
    RESULT("lseek of a socket", lseek(pair[0], 5, SEEK_SET));
    RESULT("fadvise of a socket", posix_fadvise(pair[0], 0, 0, POSIX_FADV_NORMAL));
    RESULT("O_DIRECT of a socket", fcntl(pair[0], F_SETFL, O_DIRECT));
    struct timespec t[2] = {{0, 2000000000}, {0, 0}};
    RESULT("bad nanoseconds of nothing", utimensat(AT_FDCWD, "nothing", t, 0));
    int dir = open(".", O_RDONLY);
    RESULT("F_NOTIFY of nothing", fcntl(dir, F_NOTIFY, DN_MULTISHOT));
    fd = open("nil", O_CREAT | O_RDWR, 0600);
    loff_t a = 0, b = 0;
    RESULT("copy_file_range of an empty file onto itself", copy_file_range(fd, &a, fd, &b, 5, 0));
}

int main(void) {
    scratch();
    signal(SIGPIPE, SIG_IGN);
    open_flags();
    path_descriptors();
    fifos();
    names();
    holes();
    vectors();
    temporary();
    attributes();
    within();
    permissions();
    odds();
    return 0;
}

// inotify: every event, masks, cookies, directories and files, one-shot watches, overflow, reading and polling.
#include "check.h"
#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <sys/xattr.h>

static int in;
static unsigned cookies[64];
static int known_cookies;

static int cookie_number(unsigned cookie) {
    if (!cookie)
        return 0;
    for (int i = 0; i < known_cookies; i++)
        if (cookies[i] == cookie)
            return i + 1;
    cookies[known_cookies++] = cookie;
    return known_cookies;
}

static const struct { unsigned bit; const char *name; } bits[] = {
    {IN_ACCESS, "ACCESS"}, {IN_MODIFY, "MODIFY"}, {IN_ATTRIB, "ATTRIB"}, {IN_CLOSE_WRITE, "CLOSE_WRITE"}, {IN_CLOSE_NOWRITE, "CLOSE_NOWRITE"},
    {IN_OPEN, "OPEN"}, {IN_MOVED_FROM, "MOVED_FROM"}, {IN_MOVED_TO, "MOVED_TO"}, {IN_CREATE, "CREATE"}, {IN_DELETE, "DELETE"},
    {IN_DELETE_SELF, "DELETE_SELF"}, {IN_MOVE_SELF, "MOVE_SELF"}, {IN_UNMOUNT, "UNMOUNT"}, {IN_Q_OVERFLOW, "Q_OVERFLOW"},
    {IN_IGNORED, "IGNORED"}, {IN_ISDIR, "ISDIR"}};

// Prints what has happened since, an event a line.
static void events(const char *after) {
    static char buffer[65536];
    int any = 0;
    for (;;) {
        ssize_t n = read(in, buffer, sizeof buffer);
        if (n <= 0)
            break;
        for (char *p = buffer; p < buffer + n;) {
            struct inotify_event *e = (void *)p;
            char line[512] = "";
            for (size_t i = 0; i < sizeof bits / sizeof *bits; i++)
                if (e->mask & bits[i].bit)
                    strcat(strcat(line, " "), bits[i].name);
            show(after, "wd %d cookie %d len %u%s %s", e->wd, cookie_number(e->cookie), e->len, line, e->len ? e->name : "-");
            p += sizeof *e + e->len;
            any = 1;
        }
    }
    if (!any)
        show(after, "nothing");
}

#define DO(what, ...) do { __VA_ARGS__; events(what); } while (0)

static void put(const char *path, const char *text) {
    int fd = open(path, O_CREAT | O_WRONLY | O_TRUNC, 0644);
    if (write(fd, text, strlen(text)) < 0)
        exit(98);
    close(fd);
}

static void errors(void) {
    RESULT("inotify_init1 with an unknown flag", inotify_init1(1));
    int bad = open("/dev/null", O_RDONLY);
    RESULT("add to no inotify", inotify_add_watch(bad, ".", IN_OPEN));
    RESULT("add to a closed one", inotify_add_watch(99, ".", IN_OPEN));
    RESULT("remove from no inotify", inotify_rm_watch(bad, 1));
    close(bad);
    RESULT("no events", inotify_add_watch(in, ".", 0));
    RESULT("unknown events", inotify_add_watch(in, ".", 0x00100000));
    RESULT("MASK_ADD and MASK_CREATE", inotify_add_watch(in, ".", IN_OPEN | IN_MASK_ADD | IN_MASK_CREATE));
    RESULT("nothing there", inotify_add_watch(in, "missing", IN_OPEN));
    put("f", "x");
    RESULT("ONLYDIR of a file", inotify_add_watch(in, "f", IN_OPEN | IN_ONLYDIR));
    RESULT("nowhere", inotify_add_watch(in, (char *)8, IN_OPEN));
    RESULT("remove what is not watched", inotify_rm_watch(in, 1));
    char b[8];
    RESULT("read of nothing", read(in, b, 8));
    RESULT("write", write(in, b, 8));
    RESULT("lseek", lseek(in, 0, SEEK_SET));
    int wd = RESULT("the first watch", inotify_add_watch(in, "f", IN_OPEN));
    RESULT("again", inotify_add_watch(in, "f", IN_CLOSE));
    DO("only the last mask counts", close(open("f", O_RDONLY)));
    RESULT("MASK_ADD", inotify_add_watch(in, "f", IN_OPEN | IN_MASK_ADD));
    DO("both masks count", close(open("f", O_RDONLY)));
    RESULT("MASK_CREATE", inotify_add_watch(in, "f", IN_OPEN | IN_MASK_CREATE));
    close(open("f", O_RDONLY));
    RESULT("a buffer that is too small", read(in, b, 8));
    int n = 0;
    RESULT("FIONREAD", ioctl(in, FIONREAD, &n));
    show("pending", "%d", n);
    struct pollfd p = {in, POLLIN | POLLOUT, 0};
    RESULT("poll", poll(&p, 1, 0));
    show("revents", "%x", p.revents);
    events("read");
    RESULT("poll when empty", poll(&p, 1, 0));
    int ep = epoll_create1(0);
    struct epoll_event ev = {.events = EPOLLIN | EPOLLET};
    RESULT("epoll add", epoll_ctl(ep, EPOLL_CTL_ADD, in, &ev));
    RESULT("epoll when empty", epoll_wait(ep, &ev, 1, 0));
    close(open("f", O_RDONLY));
    RESULT("epoll", epoll_wait(ep, &ev, 1, 0));
    RESULT("epoll, edge", epoll_wait(ep, &ev, 1, 0));
    events("by epoll");
    close(ep);
    RESULT("remove", inotify_rm_watch(in, wd));
    events("removed");
    RESULT("removed again", inotify_rm_watch(in, wd));
    RESULT("a new one has a new number", inotify_add_watch(in, "f", IN_OPEN | IN_ONESHOT));
    DO("one shot", close(open("f", O_RDONLY)));
    DO("and no more", close(open("f", O_RDONLY)));
    symlink("f", "l");
    RESULT("a link", inotify_add_watch(in, "l", IN_ALL_EVENTS | IN_DONT_FOLLOW));
    DO("the link itself is not opened", close(open("l", O_RDONLY)));
    DO("unlink of the link", unlink("l"));
}

static void a_directory(void) {
    mkdir("d", 0755), mkdir("e", 0755);
    show("watches", "%d %d", inotify_add_watch(in, "d", IN_ALL_EVENTS), inotify_add_watch(in, "e", IN_ALL_EVENTS));
    int fd;
    char b[64] = {0};
    DO("creat", fd = open("d/a", O_CREAT | O_RDWR, 0644));
    DO("write", write(fd, "hello", 5));
    DO("write again", write(fd, "hello", 5));
    DO("write nothing", write(fd, "", 0));
    DO("read", pread(fd, b, 3, 0));
    DO("read at the end", pread(fd, b, 3, 100));
    DO("readv", lseek(fd, 0, SEEK_SET), readv(fd, &(struct iovec){b, 4}, 1));
    DO("pwritev", pwritev(fd, &(struct iovec){b, 4}, 1, 0));
    DO("ftruncate", ftruncate(fd, 2));
    DO("ftruncate to the same", ftruncate(fd, 2));
    DO("fallocate", fallocate(fd, 0, 0, 100));
    DO("fchmod", fchmod(fd, 0600));
    DO("fchown", fchown(fd, 0, 0));
    DO("fchown -1", fchown(fd, -1, -1));
    DO("futimens", futimens(fd, NULL));
    DO("fsetxattr", fsetxattr(fd, "user.a", "x", 1, 0));
    DO("fgetxattr", fgetxattr(fd, "user.a", b, 8));
    DO("fremovexattr", fremovexattr(fd, "user.a"));
    DO("fsync", fsync(fd));
    DO("fstat", struct stat s; fstat(fd, &s));
    DO("lseek", lseek(fd, 0, SEEK_SET));
    DO("mmap", void *m = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0); *(char *)m = 'm'; munmap(m, 4096));
    DO("dup and close", close(dup(fd)));
    DO("close", close(fd));
    DO("open to read", fd = open("d/a", O_RDONLY));
    DO("close", close(fd));
    DO("open to truncate", fd = open("d/a", O_WRONLY | O_TRUNC));
    DO("close", close(fd));
    DO("O_PATH", close(open("d/a", O_PATH)));
    DO("truncate", truncate("d/a", 10));
    DO("chmod", chmod("d/a", 0644));
    DO("access", access("d/a", F_OK));
    struct timespec t[2] = {{1, 0}, {0, UTIME_OMIT}};
    DO("utimensat of the access time", utimensat(AT_FDCWD, "d/a", t, 0));
    t[0].tv_nsec = UTIME_OMIT, t[1].tv_nsec = 5;
    DO("utimensat of the modification time", utimensat(AT_FDCWD, "d/a", t, 0));
    t[1].tv_nsec = UTIME_OMIT;
    DO("utimensat of nothing", utimensat(AT_FDCWD, "d/a", t, 0));
    DO("mkdir", mkdir("d/sub", 0755));
    DO("mkdir again", mkdir("d/sub", 0755));
    DO("symlink", symlink("a", "d/link"));
    DO("link", link("d/a", "d/hard"));
    DO("link to the other", link("d/a", "e/hard"));
    DO("mkfifo", mkfifo("d/fifo", 0600));
    DO("mknod", mknod("d/node", S_IFREG | 0600, 0));
    DO("readlink", readlink("d/link", b, 8));
    DO("rename within", rename("d/a", "d/b"));
    DO("rename to the other", rename("d/b", "e/b"));
    DO("rename over", rename("e/b", "d/node"));
    DO("rename of a directory", rename("d/sub", "e/sub"));
    DO("rename from elsewhere", rename("f", "d/f"));
    DO("rename to elsewhere", rename("d/f", "f"));
    put("d/x", "x"), put("e/y", "y");
    events("two files");
    DO("exchange", renameat2(AT_FDCWD, "d/x", AT_FDCWD, "e/y", RENAME_EXCHANGE));
    DO("rename onto another name of it", rename("d/hard", "e/hard"));
    DO("opendir", DIR *dir = opendir("d"); readdir(dir); closedir(dir));
    DO("rmdir", rmdir("e/sub"));
    DO("unlink of a hard link", unlink("d/hard"));
    DO("unlink", unlink("d/node"));
    DO("unlink of a link", unlink("d/link"));
    DO("unlink of a fifo", unlink("d/fifo"));
    DO("unlink of nothing", unlink("d/fifo"));
    DO("chmod of the directory", chmod("d", 0700));
    DO("rename of the directory", rename("d", "dd"));
    fd = open("dd/open", O_CREAT | O_RDWR, 0600);
    events("opened");
    DO("unlink while open", unlink("dd/open"));
    DO("write after unlink", write(fd, "x", 1));
    DO("close after unlink", close(fd));
    unlink("dd/y");
    events("emptied");
    DO("rmdir of the watched", rmdir("dd"));
    DO("nothing after it", mkdir("dd", 0755), rmdir("dd"));
}

static void a_file(void) {
    put("file", "0123456789");
    int wd = inotify_add_watch(in, "file", IN_ALL_EVENTS);
    show("watch", "%d", wd);
    int fd, p[2];
    char b[16];
    pipe(p);
    DO("open", fd = open("file", O_RDWR));
    DO("read", read(fd, b, 4));
    DO("write", write(fd, "ab", 2));
    DO("sendfile from it", off_t at = 0; sendfile(p[1], fd, &at, 4));
    DO("splice from it", loff_t at = 0; splice(fd, &at, p[1], NULL, 4, 0));
    DO("splice to it", loff_t at = 0; splice(p[0], NULL, fd, &at, 4, 0));
    DO("copy_file_range within", loff_t a = 0, z = 5; copy_file_range(fd, &a, fd, &z, 2, 0));
    DO("link", link("file", "file2"));
    DO("unlink of the other name", unlink("file2"));
    DO("rename", rename("file", "file3"));
    DO("rename onto it", put("other", "o"); rename("other", "file3"));
    DO("close", close(fd));
    wd = inotify_add_watch(in, "file3", IN_ALL_EVENTS);
    DO("unlink", unlink("file3"));
    put("both", "x");
    inotify_add_watch(in, ".", IN_ALL_EVENTS);
    inotify_add_watch(in, "both", IN_ALL_EVENTS);
    DO("file and its directory", close(open("both", O_RDONLY)));
    DO("attributes", chmod("both", 0600));
    DO("renamed", rename("both", "both2"));
    DO("unlinked", unlink("both2"));
    wd = inotify_add_watch(in, ".", IN_CREATE | IN_DELETE);
    DO("only what was asked for", put("made", "x"); unlink("made"));
    inotify_add_watch(in, ".", IN_ALL_EVENTS | IN_EXCL_UNLINK);
    fd = open("excl", O_CREAT | O_RDWR, 0600);
    unlink("excl");
    events("created and unlinked");
    DO("writes to what is unlinked", write(fd, "x", 1));
    close(fd);
    events("closed");
    inotify_rm_watch(in, wd);
    events("removed");
}

static void other(void) {
    mkdir("o", 0755);
    int wd = inotify_add_watch(in, "o", IN_CREATE | IN_DELETE);
    static const char *lengths[] = {"a", "fifteen--bytes-", "sixteen-bytes---", "seventeen-bytes--", "thirty-one-bytes---------------", "thirty-two-bytes----------------"};
    for (int i = 0; i < 6; i++) {
        char path[100];
        sprintf(path, "o/%s", lengths[i]);
        DO(CASE("a name of %zu bytes", strlen(lengths[i])), mknod(path, S_IFREG, 0));
    }
    pid_t pid = fork();
    if (!pid) {
        mkdir("o/child", 0700);
        _exit(0);
    }
    waitpid(pid, 0, 0);
    events("by a child");
    int second = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
    show("another queue counts for itself", "%d", inotify_add_watch(second, "o", IN_CREATE));
    rmdir("o/child");
    events("the first queue");
    char b[4096];
    RESULT("the second queue", read(second, b, sizeof b));
    fcntl(in, F_SETFL, 0);
    pid = fork();
    if (!pid) {
        usleep(20000);
        mkdir("o/late", 0700);
        _exit(0);
    }
    RESULT("a read that waits", read(in, b, sizeof b));
    waitpid(pid, 0, 0);
    fcntl(in, F_SETFL, O_NONBLOCK);
    RESULT("one event at a time", (rmdir("o/late"), mkdir("o/late", 0700), read(in, b, 40)));
    events("the rest");
    for (int i = 0; i < 9000; i++) {
        mkdir("o/many", 0700);
        rmdir("o/many");
    }
    int n = 0, overflow = 0;
    for (ssize_t got; (got = read(in, b, sizeof b)) > 0;)
        for (char *p = b; p < b + got; n++) {
            struct inotify_event *e = (void *)p;
            overflow += e->mask == IN_Q_OVERFLOW && e->wd == -1;
            p += sizeof *e + e->len;
        }
    show("events before the overflow", "%d, overflows %d", n, overflow);
    DO("and after it", rmdir("o/late"));
    RESULT("remove", inotify_rm_watch(in, wd));
    events("removed");
    close(second);
    RESULT("close", close(in));
}

int main(void) {
    scratch();
    in = inotify_init1(IN_NONBLOCK);
    errors();
    a_directory();
    a_file();
    other();
    return 0;
}

// Notification of changes to the tree besides inotify: by signals (fcntl's F_NOTIFY, with F_SETOWN and F_SETSIG) and fanotify.
#include "check.h"
#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <poll.h>
#include <sys/fanotify.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>

static void put(const char *path, const char *text) {
    int fd = open(path, O_CREAT | O_WRONLY | O_TRUNC, 0644);
    if (write(fd, text, strlen(text)) < 0)
        exit(98);
    close(fd);
}

static void list(const char *path) {
    DIR *d = opendir(path);
    while (readdir(d))
        ;
    closedir(d);
}

static int dir;

// Takes the signals that are there: how many, and what the first says.
static void signals(const char *after) {
    siginfo_t i, first = {0};
    struct timespec zero = {0, 0};
    sigset_t all;
    sigemptyset(&all);
    sigaddset(&all, SIGIO);
    sigaddset(&all, SIGUSR1);
    sigaddset(&all, SIGCHLD);
    sigaddset(&all, SIGRTMIN);
    int n = 0;
    while (sigtimedwait(&all, &i, &zero) > 0)
        if (!n++)
            first = i;
    if (!n)
        show(after, "nothing");
    else if (first.si_code == SI_KERNEL)
        show(after, "%d, signal %d from the kernel pid %d", n, first.si_signo, first.si_pid);
    else
        show(after, "%d, signal %d code %d band %lx fd %s", n, first.si_signo, first.si_code, first.si_band, first.si_fd == dir ? "of the directory" : "other");
}

#define DO(what, ...) do { __VA_ARGS__; signals(what); } while (0)

static void everything(const char *how) {
    char text[200];
#define STEP(name, ...) do { snprintf(text, sizeof text, "%s: %s", how, name); DO(text, __VA_ARGS__); } while (0)
    char b[8];
    int fd;
    STEP("create", fd = open("d/f", O_CREAT | O_RDWR, 0644));
    STEP("write", if (write(fd, "hello", 5) != 5) exit(98));
    STEP("read", if (pread(fd, b, 5, 0) != 5) exit(98));
    STEP("fchmod", fchmod(fd, 0600));
    STEP("ftruncate", if (ftruncate(fd, 2)) exit(98));
    STEP("close", close(fd));
    STEP("open and close", close(open("d/f", O_RDONLY)));
    STEP("utimes", utimes("d/f", NULL));
    STEP("chown", if (chown("d/f", 0, 0)) exit(98));
    STEP("rename within", rename("d/f", "d/g"));
    STEP("rename out", rename("d/g", "g"));
    STEP("rename in", rename("g", "d/g"));
    STEP("link", if (link("d/g", "d/h")) exit(98));
    STEP("link elsewhere", if (link("d/g", "h")) exit(98));
    STEP("symlink", if (symlink("x", "d/s")) exit(98));
    STEP("mkdir", mkdir("d/sub", 0755));
    STEP("create below", put("d/sub/f", "x"));
    STEP("remove below", unlink("d/sub/f"));
    STEP("chmod a directory within", chmod("d/sub", 0700));
    STEP("rmdir", rmdir("d/sub"));
    STEP("mkfifo", mkfifo("d/fifo", 0600));
    STEP("unlink", unlink("d/g"));
    STEP("unlink", unlink("d/h"));
    STEP("unlink", unlink("d/s"));
    STEP("unlink", unlink("d/fifo"));
    STEP("unlink elsewhere", unlink("h"));
    STEP("chmod the directory", chmod("d", 0750));
    STEP("list the directory", list("d"));
#undef STEP
}

static void dnotify(void) {
    sigset_t all;
    sigemptyset(&all);
    sigaddset(&all, SIGIO);
    sigaddset(&all, SIGUSR1);
    sigaddset(&all, SIGCHLD);
    sigaddset(&all, SIGRTMIN);
    sigprocmask(SIG_BLOCK, &all, NULL);
    mkdir("d", 0755);
    put("f", "x");
    int f = open("f", O_RDWR);
    RESULT("F_NOTIFY of a file", fcntl(f, F_NOTIFY, DN_CREATE));
    RESULT("F_NOTIFY of a file for nothing", fcntl(f, F_NOTIFY, 0));
    RESULT("F_NOTIFY of nothing open", fcntl(99, F_NOTIFY, DN_CREATE));
    int p[2];
    if (pipe(p) != 0)
        return;
    RESULT("F_NOTIFY of a pipe", fcntl(p[0], F_NOTIFY, DN_CREATE));
    close(p[0]), close(p[1]);
    int path = open("d", O_PATH);
    RESULT("F_NOTIFY of O_PATH", fcntl(path, F_NOTIFY, DN_CREATE));
    close(path);
    RESULT("unknown bits alone", fcntl(f, F_NOTIFY, 0x40));
    close(f);
    dir = open("d", O_RDONLY);
    RESULT("unknown bits of a directory", fcntl(dir, F_NOTIFY, 0x40));

    CHECK("F_NOTIFY makes the process the owner", fcntl(dir, F_GETOWN) == getpid() || fcntl(dir, F_NOTIFY, DN_CREATE) == 0);
    CHECK("the owner", fcntl(dir, F_GETOWN) == getpid());
    RESULT("F_GETSIG", fcntl(dir, F_GETSIG));
    DO("once", put("d/a", "1"));
    DO("and no more", unlink("d/a"); put("d/a", "1"));
    unlink("d/a");

    static const struct {
        const char *name;
        unsigned mask;
    } masks[] = {{"access", DN_ACCESS}, {"modify", DN_MODIFY}, {"create", DN_CREATE}, {"delete", DN_DELETE}, {"rename", DN_RENAME}, {"attributes", DN_ATTRIB}};
    static const struct {
        const char *name;
        int signal;
    } signals_of[] = {{"default", 0}, {"SIGUSR1", SIGUSR1}};
    for (unsigned s = 0; s < 2; s++)
        for (unsigned i = 0; i < 6; i++) {
            RESULT(CASE("F_SETSIG %s", signals_of[s].name), fcntl(dir, F_SETSIG, signals_of[s].signal));
            RESULT(CASE("F_NOTIFY %s", masks[i].name), fcntl(dir, F_NOTIFY, (unsigned long)masks[i].mask | DN_MULTISHOT));
            everything(CASE("%s by %s", masks[i].name, signals_of[s].name));
            RESULT(CASE("take back %s", masks[i].name), fcntl(dir, F_NOTIFY, 0));
            DO(CASE("then, without %s", masks[i].name), put("d/a", "1"); rename("d/a", "d/b"); chmod("d/b", 0600); unlink("d/b"));
        }
    fcntl(dir, F_SETSIG, SIGRTMIN);
    fcntl(dir, F_NOTIFY, (unsigned long)(DN_CREATE | DN_MULTISHOT));
    DO("a real-time signal queues", put("d/1", ""); put("d/2", ""); put("d/3", ""));
    unlink("d/1"), unlink("d/2"), unlink("d/3");
    fcntl(dir, F_NOTIFY, (unsigned long)(DN_DELETE | DN_MULTISHOT));
    DO("both are asked for", put("d/1", ""); unlink("d/1"));
    fcntl(dir, F_SETSIG, SIGCHLD);
    DO("a signal with codes of its own", put("d/1", ""));
    fcntl(dir, F_SETSIG, SIGRTMIN);
    int copy = dup(dir);
    fcntl(copy, F_NOTIFY, (unsigned long)(DN_CREATE | DN_MULTISHOT));
    DO("the last descriptor is named", put("d/2", ""));
    close(copy);
    DO("closing any descriptor ends it", put("d/3", ""));
    unlink("d/1"), unlink("d/2"), unlink("d/3");

    // Two descriptions.
    int other = open("d", O_RDONLY);
    fcntl(other, F_SETSIG, SIGUSR1);
    fcntl(other, F_NOTIFY, (unsigned long)(DN_CREATE));
    fcntl(dir, F_NOTIFY, (unsigned long)(DN_CREATE));
    DO("two descriptions", put("d/1", ""));
    unlink("d/1");
    fcntl(other, F_NOTIFY, (unsigned long)(DN_CREATE | DN_MULTISHOT));
    close(other);
    DO("closed", put("d/1", ""));
    unlink("d/1");

    RESULT("F_SETSIG 64", fcntl(dir, F_SETSIG, 64));
    RESULT("F_GETSIG", fcntl(dir, F_GETSIG));
    RESULT("F_SETSIG 65", fcntl(dir, F_SETSIG, 65));
    RESULT("F_SETSIG -1", fcntl(dir, F_SETSIG, -1));
    RESULT("F_SETSIG 0", fcntl(dir, F_SETSIG, 0));
    RESULT("F_SETOWN nobody", fcntl(dir, F_SETOWN, 0));
    RESULT("F_GETOWN", fcntl(dir, F_GETOWN));
    RESULT("F_SETOWN of no process", fcntl(dir, F_SETOWN, 0x3ffffff));
    RESULT("F_SETOWN of no group", fcntl(dir, F_SETOWN, -0x3ffffff));
    RESULT("F_SETOWN INT_MIN", fcntl(dir, F_SETOWN, (int)0x80000000));
    setpgid(0, 0);
    RESULT("F_SETOWN of the group", fcntl(dir, F_SETOWN, -getpgrp()));
    CHECK("F_GETOWN", fcntl(dir, F_GETOWN) == -getpgrp());
    struct f_owner_ex ex;
    RESULT("F_GETOWN_EX", fcntl(dir, F_GETOWN_EX, &ex));
    CHECK("the group", ex.type == F_OWNER_PGRP && ex.pid == getpgrp());
    fcntl(dir, F_NOTIFY, (unsigned long)DN_CREATE);
    DO("signal the group", put("d/1", ""));
    unlink("d/1");
    ex = (struct f_owner_ex){F_OWNER_TID, (pid_t)syscall(SYS_gettid)};
    RESULT("F_SETOWN_EX", fcntl(dir, F_SETOWN_EX, &ex));
    ex = (struct f_owner_ex){7, 7};
    RESULT("F_GETOWN_EX", fcntl(dir, F_GETOWN_EX, &ex));
    CHECK("the thread", ex.type == F_OWNER_TID && ex.pid == syscall(SYS_gettid));
    fcntl(dir, F_NOTIFY, (unsigned long)DN_CREATE);
    DO("signal the thread", put("d/1", ""));
    unlink("d/1");
    ex = (struct f_owner_ex){3, getpid()};
    RESULT("F_SETOWN_EX of a bad kind", fcntl(dir, F_SETOWN_EX, &ex));
    ex = (struct f_owner_ex){F_OWNER_PID, 0x3ffffff};
    RESULT("F_SETOWN_EX of nobody", fcntl(dir, F_SETOWN_EX, &ex));
    RESULT("F_SETOWN_EX at a bad address", fcntl(dir, F_SETOWN_EX, 8));
    unsigned uids[2] = {9, 9};
    RESULT("F_GETOWNER_UIDS", fcntl(dir, 17, uids));
    show("uids", "%u %u", uids[0], uids[1]);

    // A child: what the parent asked for stays the parent's.
    fcntl(dir, F_SETOWN, getpid());
    fcntl(dir, F_NOTIFY, (unsigned long)(DN_CREATE | DN_MULTISHOT));
    int status;
    pid_t pid = fork();
    if (!pid) {
        fcntl(dir, F_NOTIFY, 0);
        close(dir);
        put("d/1", "");
        sigset_t pending;
        sigpending(&pending);
        _exit(sigismember(&pending, SIGIO));
    }
    waitpid(pid, &status, 0);
    show("a child's signal", "%d", WEXITSTATUS(status));
    sigset_t child;
    sigemptyset(&child);
    sigaddset(&child, SIGCHLD);
    struct timespec zero = {0, 0};
    sigtimedwait(&child, NULL, &zero);
    signals("its parent's");
    unlink("d/1");
    // An owner that is gone.
    pid = fork();
    if (!pid)
        _exit(fcntl(dir, F_SETOWN, getpid()) != 0);
    waitpid(pid, &status, 0);
    show("the child owns it", "%d", WEXITSTATUS(status));
    sigtimedwait(&child, NULL, &zero);
    DO("nobody is told", put("d/1", ""));
    RESULT("F_GETOWN of one that is gone", fcntl(dir, F_GETOWN));
    unlink("d/1");
    close(dir);
    rmdir("d");
}

static int fan;
static void *volatile bad_address = (void *)8;
static char top[4096];

static const struct {
    unsigned long long bit;
    const char *name;
} bits[] = {{FAN_ACCESS, "ACCESS"}, {FAN_MODIFY, "MODIFY"}, {FAN_ATTRIB, "ATTRIB"}, {FAN_CLOSE_WRITE, "CLOSE_WRITE"}, {FAN_CLOSE_NOWRITE, "CLOSE_NOWRITE"},
            {FAN_OPEN, "OPEN"}, {FAN_MOVED_FROM, "MOVED_FROM"}, {FAN_MOVED_TO, "MOVED_TO"}, {FAN_CREATE, "CREATE"}, {FAN_DELETE, "DELETE"},
            {FAN_DELETE_SELF, "DELETE_SELF"}, {FAN_MOVE_SELF, "MOVE_SELF"}, {FAN_Q_OVERFLOW, "Q_OVERFLOW"}, {FAN_ONDIR, "ONDIR"}};

static const char *path_of(int fd) {
    static char text[4096];
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    long n = readlink(link, text, sizeof text - 1);
    if (n < 0)
        return "?";
    text[n] = 0;
    return strncmp(text, top, strlen(top)) ? "elsewhere" : text + strlen(top);
}

static unsigned long long handle_of(const char *path) {
    struct {
        struct file_handle h;
        unsigned char bytes[128];
    } h = {.h.handle_bytes = 128};
    int mount;
    if (name_to_handle_at(AT_FDCWD, path, &h.h, &mount, 0) != 0)
        return 0;
    unsigned long long sum = h.h.handle_type;
    for (unsigned i = 0; i < h.h.handle_bytes; i++)
        sum = sum * 131 + h.h.f_handle[i];
    return sum;
}

static struct {
    const char *name;
    unsigned long long handle;
} known[8];

// What has happened since, an event a line; events of other processes do not count.
static void happened(const char *after) {
    static char buffer[65536] __attribute__((aligned(8)));
    int any = 0;
    for (;;) {
        long n = read(fan, buffer, sizeof buffer);
        if (n <= 0)
            break;
        for (struct fanotify_event_metadata *m = (void *)buffer; FAN_EVENT_OK(m, n); m = FAN_EVENT_NEXT(m, n)) {
            char line[2048] = "";
            if (m->vers != FANOTIFY_METADATA_VERSION || m->metadata_len != sizeof *m)
                strcat(line, " bad version");
            for (size_t i = 0; i < sizeof bits / sizeof *bits; i++)
                if (m->mask & bits[i].bit)
                    strcat(strcat(line, " "), bits[i].name);
            if (m->fd >= 0) {
                snprintf(line + strlen(line), 1000, " of %s", path_of(m->fd));
                close(m->fd);
            }
            for (char *at = (char *)m + m->metadata_len; at < (char *)m + m->event_len;) {
                struct fanotify_event_info_fid *f = (void *)at;
                struct file_handle *h = (void *)f->handle;
                unsigned long long sum = h->handle_type;
                for (unsigned i = 0; i < h->handle_bytes; i++)
                    sum = sum * 131 + h->f_handle[i];
                const char *whose = "other";
                for (int i = 0; i < 8; i++)
                    if (known[i].name && known[i].handle == sum)
                        whose = known[i].name;
                snprintf(line + strlen(line), 200, " [%d %s%s%s]", f->hdr.info_type, whose, f->hdr.info_type == 2 ? " " : "",
                         f->hdr.info_type == 2 ? (char *)h->f_handle + h->handle_bytes : "");
                at += f->hdr.len;
            }
            show(after, "%s%s", m->pid == getpid() ? "" : m->pid ? "another's" : "nobody's", line);
            any = 1;
        }
    }
    if (!any)
        show(after, "nothing");
}

#define AND(what, ...) do { __VA_ARGS__; happened(what); } while (0)

static void init_arguments(void) {
    static const unsigned flags[] = {0, FAN_CLOEXEC, FAN_NONBLOCK, FAN_CLASS_CONTENT, FAN_CLASS_PRE_CONTENT, 0xc, FAN_UNLIMITED_QUEUE, FAN_UNLIMITED_MARKS,
                                     FAN_REPORT_TID, FAN_REPORT_FID, FAN_REPORT_DIR_FID, FAN_REPORT_NAME, FAN_REPORT_DFID_NAME, FAN_REPORT_FID | FAN_REPORT_DFID_NAME,
                                     FAN_REPORT_FID | FAN_CLASS_CONTENT, FAN_REPORT_FID | FAN_REPORT_NAME, 0x1000, 0x1000 | FAN_REPORT_FID, 1u << 31, 1u << 20, 0x80 | FAN_REPORT_TID};
    for (unsigned i = 0; i < sizeof flags / sizeof *flags; i++) {
        int fd = fanotify_init(flags[i], O_RDONLY);
        works_of(CASE("fanotify_init %x", flags[i]), fd);
        if (fd >= 0) {
            show(CASE("descriptor %x", flags[i]), "%d %x", fcntl(fd, F_GETFD), fcntl(fd, F_GETFL) & ~O_LARGEFILE);
            close(fd);
        }
    }
    static const unsigned events[] = {O_WRONLY, O_RDWR, 3, O_APPEND, O_NONBLOCK, O_CLOEXEC, O_DSYNC, O_SYNC, O_NOATIME, O_LARGEFILE, O_CREAT, O_TRUNC, O_DIRECTORY, O_PATH, 1u << 30};
    for (unsigned i = 0; i < sizeof events / sizeof *events; i++) {
        int fd = fanotify_init(0, events[i]);
        works_of(CASE("event flags %x", events[i]), fd);
        if (fd >= 0)
            close(fd);
    }
}

static void mark_arguments(void) {
    fan = fanotify_init(FAN_NONBLOCK | FAN_CLOEXEC, O_RDONLY | O_CLOEXEC);
    static const struct {
        const char *name;
        unsigned flags;
        unsigned long long mask;
        const char *path;
    } cases[] = {{"add", FAN_MARK_ADD, FAN_OPEN, "t"},
                 {"remove it", FAN_MARK_REMOVE, FAN_OPEN, "t"},
                 {"remove it again", FAN_MARK_REMOVE, FAN_OPEN, "t"},
                 {"flush", FAN_MARK_FLUSH, 0, "t"},
                 {"flush with a mask", FAN_MARK_FLUSH, FAN_OPEN, "t"},
                 {"flush with more", FAN_MARK_FLUSH | FAN_MARK_ONLYDIR, 0, "t"},
                 {"flush mounts", FAN_MARK_FLUSH | FAN_MARK_MOUNT, 0, "t"},
                 {"flush file systems", FAN_MARK_FLUSH | FAN_MARK_FILESYSTEM, 0, "t"},
                 {"flush nowhere", FAN_MARK_FLUSH, 0, "missing"},
                 {"nothing to do", 0, FAN_OPEN, "t"},
                 {"add and remove", FAN_MARK_ADD | FAN_MARK_REMOVE, FAN_OPEN, "t"},
                 {"no events", FAN_MARK_ADD, 0, "t"},
                 {"unknown flags", FAN_MARK_ADD | 1 << 20, FAN_OPEN, "t"},
                 {"unknown events", FAN_MARK_ADD, 1 << 21, "t"},
                 {"events above 32 bits", FAN_MARK_ADD, 1ull << 40 | FAN_OPEN, "t"},
                 {"overflows", FAN_MARK_ADD, FAN_Q_OVERFLOW, "t"},
                 {"creation without identities", FAN_MARK_ADD, FAN_CREATE, "t"},
                 {"attributes without identities", FAN_MARK_ADD, FAN_ATTRIB, "t"},
                 {"self without identities", FAN_MARK_ADD, FAN_DELETE_SELF, "t"},
                 {"a mount and a file system", FAN_MARK_ADD | FAN_MARK_MOUNT | FAN_MARK_FILESYSTEM, FAN_OPEN, "t"},
                 {"missing", FAN_MARK_ADD, FAN_OPEN, "missing"},
                 {"an empty path", FAN_MARK_ADD, FAN_OPEN, ""},
                 {"only a directory", FAN_MARK_ADD | FAN_MARK_ONLYDIR, FAN_OPEN, "t/f"},
                 {"only a directory that is one", FAN_MARK_ADD | FAN_MARK_ONLYDIR, FAN_OPEN, "t"},
                 {"a link", FAN_MARK_ADD, FAN_OPEN, "t/link"},
                 {"the link itself", FAN_MARK_ADD | FAN_MARK_DONT_FOLLOW, FAN_OPEN, "t/link"},
                 {"remove at the link", FAN_MARK_REMOVE, FAN_OPEN, "t/f"},
                 {"ignored", FAN_MARK_ADD | FAN_MARK_IGNORED_MASK, FAN_OPEN, "t/f"},
                 {"ignored in both ways", FAN_MARK_ADD | FAN_MARK_IGNORED_MASK | 0x400, FAN_OPEN, "t/f"},
                 {"remove what is ignored", FAN_MARK_REMOVE | FAN_MARK_IGNORED_MASK, FAN_OPEN, "t/f"},
                 {"ignore in a directory for good", FAN_MARK_ADD | 0x400 | FAN_MARK_IGNORED_SURV_MODIFY, FAN_OPEN, "t"},
                 {"ignore in a directory", FAN_MARK_ADD | 0x400, FAN_OPEN, "t"},
                 {"ignore in the old way now", FAN_MARK_ADD | FAN_MARK_IGNORED_MASK, FAN_OPEN, "t"},
                 {"ignore in a file system", FAN_MARK_ADD | 0x400 | FAN_MARK_FILESYSTEM, FAN_OPEN, "t"},
                 {"ignore directories in a file", FAN_MARK_ADD | 0x400, FAN_OPEN | FAN_ONDIR, "t/f"},
                 {"an evictable mark of a mount", FAN_MARK_ADD | FAN_MARK_MOUNT | 0x200, FAN_OPEN, "t"},
                 {"flush all", FAN_MARK_FLUSH, 0, "t"}};
    for (unsigned i = 0; i < sizeof cases / sizeof *cases; i++)
        RESULT(CASE("mark: %s", cases[i].name), fanotify_mark(fan, cases[i].flags, cases[i].mask, AT_FDCWD, cases[i].path));
    RESULT("mark with a closed group", fanotify_mark(99, FAN_MARK_ADD, FAN_OPEN, AT_FDCWD, "t"));
    int null = open("/dev/null", O_RDONLY);
    RESULT("mark with no group", fanotify_mark(null, FAN_MARK_ADD, FAN_OPEN, AT_FDCWD, "t"));
    close(null);
    RESULT("mark at a bad address", fanotify_mark(fan, FAN_MARK_ADD, FAN_OPEN, AT_FDCWD, bad_address));
    int d = open("t", O_RDONLY);
    RESULT("mark a descriptor", fanotify_mark(fan, FAN_MARK_ADD, FAN_OPEN, d, NULL));
    RESULT("mark below a descriptor", fanotify_mark(fan, FAN_MARK_ADD, FAN_OPEN, d, "f"));
    RESULT("mark a closed descriptor", fanotify_mark(fan, FAN_MARK_ADD, FAN_OPEN, 99, NULL));
    close(d);
    int p[2];
    if (pipe(p) == 0)
        RESULT("write to a group", write(fan, p, 8));
    struct { int fd; unsigned response; } answer = {5, FAN_ALLOW};
    RESULT("seek", lseek(fan, 0, SEEK_CUR));
    (void)answer;
    close(p[0]), close(p[1]);
    char small[8];
    RESULT("read of nothing", read(fan, small, sizeof small));
    close(open("t/f", O_RDONLY));
    RESULT("read of too little", read(fan, small, sizeof small));
    int waiting = 0;
    RESULT("FIONREAD", ioctl(fan, FIONREAD, &waiting));
    show("bytes", "%d", waiting);
    struct pollfd pf = {fan, POLLIN | POLLOUT, 0};
    RESULT("poll", poll(&pf, 1, 0));
    show("events", "%x", pf.revents);
    RESULT("read to a bad address", read(fan, bad_address, 4096));
    happened("what was not read is gone");
    close(fan);
}

static void steps(const char *how) {
    char b[8];
    int fd;
    AND(CASE("%s: create", how), fd = open("t/new", O_CREAT | O_RDWR, 0644));
    AND(CASE("%s: write", how), if (write(fd, "hello", 5) != 5) exit(98));
    AND(CASE("%s: read", how), if (pread(fd, b, 5, 0) != 5) exit(98));
    AND(CASE("%s: fchmod", how), fchmod(fd, 0600));
    AND(CASE("%s: ftruncate", how), if (ftruncate(fd, 2)) exit(98));
    AND(CASE("%s: close", how), close(fd));
    AND(CASE("%s: everything of a file", how), put("t/new", "x"); fd = open("t/new", O_RDONLY); if (read(fd, b, 1) != 1) exit(98); close(fd));
    AND(CASE("%s: another file", how), close(open("t/f", O_RDONLY)));
    AND(CASE("%s: rename", how), rename("t/new", "t/renamed"));
    AND(CASE("%s: chmod", how), chmod("t/renamed", 0640));
    AND(CASE("%s: mkdir", how), mkdir("t/dir", 0755));
    AND(CASE("%s: list it", how), list("t/dir"));
    AND(CASE("%s: below it", how), put("t/dir/x", "y"));
    AND(CASE("%s: remove below it", how), unlink("t/dir/x"));
    AND(CASE("%s: rmdir", how), rmdir("t/dir"));
    AND(CASE("%s: unlink", how), unlink("t/renamed"));
    AND(CASE("%s: list", how), list("t"));
    AND(CASE("%s: elsewhere", how), put("u", "z"));
    AND(CASE("%s: a fifo", how), mkfifo("t/p", 0600); fd = open("t/p", O_RDWR); close(fd); unlink("t/p"));
}

static void mark(unsigned flags, unsigned long long mask, const char *path) {
    if (fanotify_mark(fan, FAN_MARK_ADD | flags, mask, AT_FDCWD, path) != 0)
        show("mark", "%s %s", path, strerrorname_np(errno));
}

#define OPENED (FAN_ACCESS | FAN_MODIFY | FAN_CLOSE | FAN_OPEN)

static void fanotify(void) {
    if (!getcwd(top, sizeof top))
        return;
    mkdir("t", 0755);
    put("t/f", "file");
    if (symlink("f", "t/link") != 0)
        return;
    init_arguments();
    mark_arguments();
    unsigned group = FAN_NONBLOCK | FAN_CLOEXEC;
    static const struct {
        const char *name;
        unsigned flags;
        unsigned long long mask;
        const char *path;
    } cases[] = {{"a file", 0, OPENED, "t/f"},
                 {"a directory", 0, OPENED, "t"},
                 {"its children", 0, OPENED | FAN_EVENT_ON_CHILD, "t"},
                 {"its children and directories", 0, OPENED | FAN_EVENT_ON_CHILD | FAN_ONDIR, "t"},
                 {"directories", 0, OPENED | FAN_ONDIR, "t"},
                 {"opens", 0, FAN_OPEN | FAN_EVENT_ON_CHILD, "t"},
                 {"closes of writers", 0, FAN_CLOSE_WRITE | FAN_EVENT_ON_CHILD, "t"}};
    for (unsigned i = 0; i < sizeof cases / sizeof *cases; i++) {
        fan = fanotify_init(group, O_RDONLY | O_CLOEXEC);
        mark(cases[i].flags, cases[i].mask, cases[i].path);
        steps(cases[i].name);
        close(fan);
    }
    // Ignored events.
    fan = fanotify_init(group, O_RDONLY);
    mark(0, OPENED | FAN_EVENT_ON_CHILD, "t");
    mark(FAN_MARK_IGNORED_MASK, FAN_OPEN | FAN_CLOSE, "t/f");
    AND("ignored in the file", close(open("t/f", O_RDONLY)));
    AND("until it is written", put("t/f", "new"); close(open("t/f", O_RDONLY)));
    mark(FAN_MARK_IGNORED_MASK | FAN_MARK_IGNORED_SURV_MODIFY, FAN_OPEN | FAN_CLOSE, "t/f");
    AND("ignored for good", put("t/f", "new"); close(open("t/f", O_RDONLY)));
    close(fan);
    // What a reader gets.
    fan = fanotify_init(group, O_RDWR | O_CLOEXEC | O_APPEND);
    mark(0, OPENED | FAN_EVENT_ON_CHILD, "t");
    close(open("t/f", O_RDONLY));
    struct fanotify_event_metadata m[4];
    show("read", "%d", read(fan, m, sizeof m) == sizeof *m);
    show("the descriptor", "%d %x", fcntl(m[0].fd, F_GETFD), fcntl(m[0].fd, F_GETFL) & (O_ACCMODE | O_APPEND));
    RESULT("write through it", write(m[0].fd, "more", 4));
    char b[32] = "";
    RESULT("read through it", pread(m[0].fd, b, 31, 0));
    AND("that makes no events", close(m[0].fd));
    unlink("t/f");
    put("t/f", "again");
    happened("a new file");
    put("t/g", "x");
    unlink("t/g");
    happened("a file that is gone");
    close(fan);
    // Children, order and merging.
    fan = fanotify_init(group, O_RDONLY);
    mark(0, OPENED | FAN_EVENT_ON_CHILD, "t");
    AND("two files by turns", put("t/a", "1"); put("t/b", "2"); put("t/a", "3"));
    int status;
    AND("a child's", if (!fork()) { put("t/a", "1"); _exit(0); } wait(&status));
    AND("the child's and ours", if (!fork()) { put("t/a", "1"); _exit(0); } wait(&status); put("t/a", "2"));
    RESULT("remove part", fanotify_mark(fan, FAN_MARK_REMOVE, FAN_MODIFY | FAN_OPEN, AT_FDCWD, "t"));
    AND("the rest", put("t/a", "1"));
    RESULT("flush", fanotify_mark(fan, FAN_MARK_FLUSH, 0, AT_FDCWD, "t"));
    AND("no more", put("t/a", "1"));
    close(fan);
    // A mount and a file system of our own.
    mkdir("m", 0755);
    if (mount("none", "m", "tmpfs", 0, NULL) == 0) {
        for (int i = 0; i < 2; i++) {
            fan = fanotify_init(group, O_RDONLY);
            mark(i ? FAN_MARK_FILESYSTEM : FAN_MARK_MOUNT, OPENED | (i ? FAN_ONDIR : 0), "m");
            AND(CASE("in the mount %d", i), put("m/f", "x"));
            AND(CASE("a directory in it %d", i), mkdir("m/d", 0755); list("m/d"));
            AND(CASE("below %d", i), put("m/d/f", "x"));
            AND(CASE("outside %d", i), put("t/a", "x"));
            mark((i ? FAN_MARK_FILESYSTEM : FAN_MARK_MOUNT) | FAN_MARK_IGNORED_MASK | FAN_MARK_IGNORED_SURV_MODIFY, FAN_OPEN, "m");
            AND(CASE("opens ignored %d", i), put("m/f", "x"));
            fanotify_mark(fan, FAN_MARK_FLUSH | (i ? FAN_MARK_FILESYSTEM : FAN_MARK_MOUNT), 0, AT_FDCWD, "m");
            AND(CASE("flushed %d", i), put("m/f", "x"));
            close(fan);
            unlink("m/d/f");
            rmdir("m/d");
        }
        // Identities.
        static const unsigned reports[] = {FAN_REPORT_FID, FAN_REPORT_DIR_FID, FAN_REPORT_DFID_NAME, FAN_REPORT_FID | FAN_REPORT_DIR_FID, FAN_REPORT_FID | FAN_REPORT_DFID_NAME};
        mkdir("m/t", 0755);
        put("m/t/f", "x");
        known[0].name = "the root", known[0].handle = handle_of("m");
        known[1].name = "t", known[1].handle = handle_of("m/t");
        known[2].name = "f", known[2].handle = handle_of("m/t/f");
        for (unsigned i = 0; i < 5; i++)
            for (int whole = 0; whole < 2; whole++) {
                fan = fanotify_init(group | reports[i], 0);
                unsigned long long all = OPENED | FAN_CREATE | FAN_DELETE | FAN_MOVE | FAN_ATTRIB | FAN_DELETE_SELF | FAN_MOVE_SELF | FAN_ONDIR | FAN_EVENT_ON_CHILD;
                mark(whole ? FAN_MARK_FILESYSTEM : 0, whole ? all & ~FAN_EVENT_ON_CHILD : all, "m/t");
                char how[32];
                snprintf(how, sizeof how, "%s %x", whole ? "file system" : "directory", reports[i]);
                AND(CASE("%s: open", how), close(open("m/t/f", O_RDONLY)));
                AND(CASE("%s: chmod", how), chmod("m/t/f", 0600));
                AND(CASE("%s: create", how), put("m/t/g", "x"));
                AND(CASE("%s: rename", how), rename("m/t/g", "m/t/h"));
                AND(CASE("%s: delete", how), unlink("m/t/h"));
                AND(CASE("%s: mkdir", how), mkdir("m/t/d", 0755));
                AND(CASE("%s: rmdir", how), rmdir("m/t/d"));
                AND(CASE("%s: list", how), list("m/t"));
                AND(CASE("%s: above", how), put("m/g", "x"); unlink("m/g"));
                close(fan);
            }
        umount("m");
    }
    fan = fanotify_init(group | FAN_REPORT_FID, 0);
    RESULT("identities in proc", fanotify_mark(fan, FAN_MARK_ADD, FAN_OPEN, AT_FDCWD, "/proc/self/status"));
    close(fan);
    // Overflow.
    fan = fanotify_init(group | FAN_REPORT_FID, 0);
    close(fan);
}

int main(void) {
    scratch();
    dnotify();
    fanotify();
    return 0;
}

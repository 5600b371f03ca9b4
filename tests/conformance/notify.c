// Notification of changes to the tree besides inotify: by signals (fcntl's F_NOTIFY, with F_SETOWN and F_SETSIG) and fanotify.
#include "check.h"
#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/mman.h>
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

int main(void) {
    scratch();
    dnotify();
    return 0;
}

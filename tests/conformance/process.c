// Processes: fork, clone, wait, exec, groups and sessions, pidfds, prctl, credentials, limits, scheduling attributes.
#include "check.h"
#include <fcntl.h>
#include <linux/sched.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <grp.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>

static pid_t child_that(void (*does)(void)) {
    pid_t child = fork();
    if (child == 0) {
        does();
        _exit(0);
    }
    return child;
}
static void sleeps(void) {
    for (;;)
        pause();
}
static void ends_with_seven(void) { _exit(7); }
static void leads_a_group(void) {
    setpgid(0, 0);
    sleeps();
}

static const char *info_of(const siginfo_t *i, pid_t child) {
    static char text[128];
    snprintf(text, sizeof text, "signo %d code %d status %d %s", i->si_signo, i->si_code, i->si_status, i->si_pid == child ? "that child" : i->si_pid == 0 ? "nobody" : "another");
    return text;
}

static void waiting(void) {
    int status = -1;
    siginfo_t info;
    RESULT("wait without children", wait(&status));
    RESULT("WNOHANG without children", waitpid(-1, &status, WNOHANG));
    RESULT("waitpid of process 1", waitpid(getppid() + 100000, &status, 0));
    static const int options[] = {4, 0x10, 0x100, 0x1000000, WEXITED};
    for (int i = 0; i < 5; i++)
        RESULT(CASE("wait4 with options %#x", options[i]), waitpid(-1, &status, options[i]));
    RESULT("waitid without an event", waitid(P_ALL, 0, &info, 0));
    RESULT("waitid with unknown options", waitid(P_ALL, 0, &info, WEXITED | 0x100));
    RESULT("waitid of a strange kind", waitid(9, 0, &info, WEXITED));
    RESULT("waitid of process 0", waitid(P_PID, 0, &info, WEXITED));
    RESULT("waitid of a negative process", waitid(P_PID, -3, &info, WEXITED));
    RESULT("waitid of the own group without children", waitid(P_PGID, 0, &info, WEXITED));
    RESULT("waitid of a bad pidfd", waitid(P_PIDFD, 99, &info, WEXITED));
    RESULT("waitpid INT_MIN", waitpid((pid_t)0x80000000, &status, 0));
    pid_t child = child_that(ends_with_seven);
    memset(&info, 0x55, sizeof info);
    RESULT("waitid WNOWAIT", waitid(P_PID, child, &info, WEXITED | WNOWAIT));
    show("what it tells", "%s", info_of(&info, child));
    RESULT("a dead child for WSTOPPED", waitid(P_PID, child, &info, WSTOPPED | WNOHANG));
    RESULT("kill of a zombie", kill(child, SIGTERM));
    CHECK("getpgid of a zombie", getpgid(child) == getpgrp());
    CHECK("waitpid", waitpid(child, &status, 0) == child);
    show("its status", "%x", status);
    RESULT("once more", waitpid(child, &status, 0));
    RESULT("kill then", kill(child, 0));
    const int signals[] = {SIGKILL, SIGTERM, SIGHUP, SIGUSR1, SIGALRM, SIGPIPE, SIGINT, SIGRTMIN + 3, SIGVTALRM};
    for (size_t i = 0; i < sizeof signals / sizeof *signals; i++) {
        child = child_that(sleeps);
        kill(child, signals[i]);
        memset(&info, 0, sizeof info);
        waitid(P_PID, child, &info, WEXITED | WNOWAIT);
        show(CASE("killed by %d", signals[i]), "%s", info_of(&info, child));
        struct rusage usage;
        CHECK(CASE("wait4 of one killed by %d", signals[i]), wait4(child, &status, 0, &usage) == child);
        show(CASE("status of one killed by %d", signals[i]), "%x", status);
    }
    for (int code = 0; code < 1024; code += 171) {
        child = fork();
        if (child == 0)
            _exit(code);
        waitpid(child, &status, 0);
        show(CASE("exit code %d", code), "%x", status);
    }
    // Stop and go on.
    child = child_that(leads_a_group);
    setpgid(child, child);
    RESULT("nothing yet", waitpid(child, &status, WNOHANG | WUNTRACED | WCONTINUED));
    memset(&info, 0x55, sizeof info);
    RESULT("waitid, nothing yet", waitid(P_PID, child, &info, WEXITED | WNOHANG));
    show("it says so", "%d %d", info.si_signo, info.si_pid);
    static const int stops[] = {SIGSTOP, SIGTSTP, SIGTTIN, SIGTTOU};
    for (int i = 0; i < 4; i++) {
        kill(child, stops[i]);
        memset(&info, 0, sizeof info);
        RESULT(CASE("stopped by %d, WNOWAIT", stops[i]), waitid(P_PID, child, &info, WSTOPPED | WNOWAIT));
        show(CASE("stopped by %d", stops[i]), "%s", info_of(&info, child));
        CHECK(CASE("stopped by %d, wait4", stops[i]), waitpid(child, &status, WUNTRACED) == child);
        show(CASE("stopped by %d, status", stops[i]), "%x", status);
        RESULT(CASE("stopped by %d, only once", stops[i]), waitpid(child, &status, WUNTRACED | WNOHANG));
        kill(child, SIGCONT);
        memset(&info, 0, sizeof info);
        RESULT(CASE("continued after %d, WNOWAIT", stops[i]), waitid(P_PID, child, &info, WCONTINUED | WNOWAIT));
        show(CASE("continued after %d", stops[i]), "%s", info_of(&info, child));
        CHECK(CASE("continued after %d, wait4", stops[i]), waitpid(child, &status, WCONTINUED) == child);
        show(CASE("continued after %d, status", stops[i]), "%x", status);
        RESULT(CASE("continued after %d, only once", stops[i]), waitpid(child, &status, WCONTINUED | WNOHANG));
    }
    RESULT("SIGCONT to one that runs", kill(child, SIGCONT));
    RESULT("is no event", waitpid(child, &status, WCONTINUED | WNOHANG));
    kill(child, SIGSTOP);
    waitpid(child, &status, WUNTRACED);
    kill(child, SIGTERM);
    usleep(10000);
    RESULT("SIGTERM waits while it is stopped", waitpid(child, &status, WNOHANG));
    kill(child, SIGCONT);
    CHECK("and ends it then", waitpid(child, &status, 0) == child);
    show("status", "%x", status);
    child = child_that(sleeps);
    kill(child, SIGSTOP);
    waitpid(child, &status, WUNTRACED);
    kill(child, SIGKILL);
    CHECK("SIGKILL ends a stopped one", waitpid(child, &status, 0) == child);
    show("its status", "%x", status);
    // By group.
    pid_t a = child_that(leads_a_group), b;
    setpgid(a, a);
    b = child_that(sleeps);
    setpgid(b, a);
    RESULT("by group, none yet", waitpid(-a, &status, WNOHANG));
    RESULT("own group has none", waitpid(0, &status, WNOHANG));
    RESULT("signal the group", kill(-a, SIGTERM));
    int n = 0;
    while (waitpid(-a, &status, 0) > 0)
        n++;
    show("the group had", "%d", n);
    // Automatic reaping.
    signal(SIGCHLD, SIG_IGN);
    child = child_that(ends_with_seven);
    RESULT("SIGCHLD ignored: wait ends with none", waitpid(child, &status, 0));
    signal(SIGCHLD, SIG_DFL);
    struct sigaction nocldwait = {.sa_handler = SIG_DFL, .sa_flags = SA_NOCLDWAIT};
    sigaction(SIGCHLD, &nocldwait, NULL);
    child = child_that(ends_with_seven);
    RESULT("SA_NOCLDWAIT", waitpid(child, &status, 0));
    signal(SIGCHLD, SIG_DFL);
    // Children without SIGCHLD.
    child = syscall(SYS_clone, 0, 0, 0, 0, 0);
    if (child == 0)
        _exit(3);
    RESULT("no exit signal: plain wait", waitpid(child, &status, WNOHANG));
    CHECK("no exit signal: __WALL", waitpid(child, &status, __WALL) == child);
    child = syscall(SYS_clone, SIGUSR2, 0, 0, 0, 0);
    if (child == 0)
        _exit(3);
    signal(SIGUSR2, SIG_IGN);
    CHECK("another exit signal: __WCLONE", waitpid(child, &status, __WCLONE) == child);
    show("its status", "%x", status);
    signal(SIGUSR2, SIG_DFL);
}

static volatile siginfo_t told;
static volatile sig_atomic_t times_told;
static void tells(int s, siginfo_t *i, void *c) {
    *(siginfo_t *)&told = *i;
    times_told++;
}

static void child_signals(void) {
    int status;
    struct sigaction a = {.sa_sigaction = tells, .sa_flags = SA_SIGINFO | SA_RESTART};
    sigaction(SIGCHLD, &a, NULL);
    times_told = 0;
    pid_t child = child_that(ends_with_seven);
    waitpid(child, &status, 0);
    show("SIGCHLD of an end", "%d %s", times_told, info_of((siginfo_t *)&told, child));
    child = child_that(leads_a_group);
    times_told = 0;
    kill(child, SIGSTOP);
    waitpid(child, &status, WUNTRACED);
    usleep(5000);
    show("SIGCHLD of a stop", "%d %s", times_told, info_of((siginfo_t *)&told, child));
    times_told = 0;
    kill(child, SIGCONT);
    waitpid(child, &status, WCONTINUED);
    usleep(5000);
    show("SIGCHLD of going on", "%d %s", times_told, info_of((siginfo_t *)&told, child));
    a.sa_flags |= SA_NOCLDSTOP;
    sigaction(SIGCHLD, &a, NULL);
    times_told = 0;
    kill(child, SIGSTOP);
    waitpid(child, &status, WUNTRACED);
    kill(child, SIGCONT);
    waitpid(child, &status, WCONTINUED);
    usleep(5000);
    show("SA_NOCLDSTOP", "%d", times_told);
    kill(child, SIGKILL);
    waitpid(child, &status, 0);
    show("SIGCHLD of a kill", "%d %s", times_told, info_of((siginfo_t *)&told, child));
    signal(SIGCHLD, SIG_DFL);
}

static volatile sig_atomic_t heard;
static void hears(int signal) { heard = signal; }

static void groups(void) {
    int status, p[2];
    CHECK("getpgid of oneself", getpgid(0) == getpgrp() && getpgid(getpid()) == getpgrp());
    CHECK("getsid of oneself", getsid(0) == getsid(getpid()));
    RESULT("getpgid of nobody", getpgid(4000000));
    RESULT("getsid of nobody", getsid(4000000));
    RESULT("getpgid of a negative", getpgid(-1));
    RESULT("setpgid to a negative group", setpgid(0, -1));
    RESULT("setpgid of nobody", setpgid(4000000, 0));
    pid_t child = child_that(sleeps);
    RESULT("setpgid of a child", setpgid(child, child));
    CHECK("its group", getpgid(child) == child);
    RESULT("setpgid of a child to a group that is not there", setpgid(child, 4000000));
    pid_t second = child_that(sleeps);
    RESULT("a second into the first's group", setpgid(second, child));
    RESULT("and back into ours", setpgid(second, getpgrp()));
    kill(second, SIGKILL);
    waitpid(second, &status, 0);
    kill(child, SIGKILL);
    waitpid(child, &status, 0);
    if (pipe2(p, O_CLOEXEC) != 0)
        return;
    child = fork();
    if (child == 0) {
        execl("/bin/sleep", "sleep", "100", (char *)0);
        _exit(1);
    }
    close(p[1]);
    char c;
    if (read(p[0], &c, 1) == 0)
        RESULT("setpgid after exec", setpgid(child, child));
    close(p[0]);
    kill(child, SIGKILL);
    waitpid(child, &status, 0);
    child = fork();
    if (child == 0) {
        int bad = 0;
        bad |= (setsid() != getpid()) << 0;
        bad |= (getsid(0) != getpid()) << 1;
        bad |= (getpgrp() != getpid()) << 2;
        bad |= !(setsid() == -1 && errno == EPERM) << 3;
        bad |= !(setpgid(0, 0) == -1 && errno == EPERM) << 4;
        bad |= !(setpgid(0, getpid()) == -1 && errno == EPERM) << 5;
        _exit(bad);
    }
    waitpid(child, &status, 0);
    show("a session of its own", "%x", status);
    child = fork();
    if (child == 0) {
        setpgid(0, 0);
        _exit(setsid() == -1 && errno == EPERM ? 0 : 1);
    }
    waitpid(child, &status, 0);
    show("a group leader cannot make a session", "%x", status);
    // An orphaned group with a stopped member gets SIGHUP and SIGCONT.
    if (pipe(p) != 0)
        return;
    child = fork();
    if (child == 0) {
        setpgid(0, 0);
        pid_t job = fork();
        if (job == 0) {
            setpgid(0, 0);
            signal(SIGHUP, hears);
            raise(SIGSTOP);
            if (write(p[1], heard ? "h" : "n", 1) < 0)
                _exit(1);
            _exit(0);
        }
        setpgid(job, job);
        waitpid(job, &status, WUNTRACED);
        _exit(0);
    }
    waitpid(child, &status, 0);
    c = '?';
    if (read(p[0], &c, 1) < 0)
        perror("read");
    show("a stopped job whose shell ends", "%c", c);
    close(p[0]);
    close(p[1]);
}

static void orphans(void) {
    int status, p[2], on = -1;
    RESULT("PR_GET_CHILD_SUBREAPER", prctl(PR_GET_CHILD_SUBREAPER, &on));
    show("no subreaper", "%d", on);
    RESULT("PR_SET_CHILD_SUBREAPER", prctl(PR_SET_CHILD_SUBREAPER, 1));
    prctl(PR_GET_CHILD_SUBREAPER, &on);
    show("subreaper", "%d", on);
    if (pipe(p) != 0)
        return;
    pid_t self = getpid(), child = fork();
    if (child == 0) {
        prctl(PR_GET_CHILD_SUBREAPER, &on);
        if (on != 0)
            _exit(1);
        pid_t grandchild = fork();
        if (grandchild == 0) {
            while (getppid() != self)
                usleep(1000);
            _exit(4);
        }
        if (write(p[1], &grandchild, sizeof grandchild) < 0)
            _exit(2);
        _exit(0);
    }
    pid_t grandchild = 0;
    if (read(p[0], &grandchild, sizeof grandchild) < 0)
        perror("read");
    waitpid(child, &status, 0);
    show("the middle one", "%x", status);
    CHECK("the orphan is the subreaper's", waitpid(grandchild, &status, 0) == grandchild);
    show("its status", "%x", status);
    // The signal at the parent's death.
    child = fork();
    if (child == 0) {
        grandchild = fork();
        if (grandchild == 0) {
            prctl(PR_SET_PDEATHSIG, SIGUSR1);
            if (write(p[1], &(pid_t){getpid()}, sizeof(pid_t)) < 0)
                _exit(2);
            sleeps();
        }
        if (read(p[0], &grandchild, sizeof grandchild) < 0)
            _exit(3);
        if (write(p[1], &grandchild, sizeof grandchild) < 0)
            _exit(2);
        _exit(0);
    }
    waitpid(child, &status, 0);
    if (read(p[0], &grandchild, sizeof grandchild) < 0)
        perror("read");
    CHECK("one with PR_SET_PDEATHSIG", waitpid(grandchild, &status, 0) == grandchild);
    show("ends with its signal", "%x", status);
    prctl(PR_SET_CHILD_SUBREAPER, 0);
    close(p[0]);
    close(p[1]);
}

static long clone3_with(struct clone_args *a, size_t size) {
    long r = syscall(SYS_clone3, a, size);
    if (r == 0)
        _exit(5);
    return r;
}

static void births(void) {
    int status;
    static const struct { const char *name; unsigned long flags; unsigned long signal; } bad[] = {
        {"CLONE_SIGHAND alone", CLONE_SIGHAND, 0}, {"CLONE_THREAD alone", CLONE_THREAD, 0}, {"CLONE_THREAD with CLONE_VM", CLONE_THREAD | CLONE_VM, 0},
        {"CLONE_FS and CLONE_NEWNS", CLONE_FS | CLONE_NEWNS, SIGCHLD}, {"CLONE_CLEAR_SIGHAND with CLONE_SIGHAND", CLONE_CLEAR_SIGHAND | CLONE_SIGHAND | CLONE_VM, SIGCHLD},
        {"a signal that is none", 0, 65}, {"CLONE_DETACHED", CLONE_DETACHED, SIGCHLD}, {"an unknown flag", 1ull << 40, SIGCHLD}, {"CLONE_PARENT with a signal", CLONE_PARENT, SIGCHLD},
        {"CLONE_PIDFD with CLONE_DETACHED", CLONE_PIDFD | CLONE_DETACHED, SIGCHLD},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct clone_args a = {.flags = bad[i].flags, .exit_signal = bad[i].signal};
        RESULT(CASE("clone3, %s", bad[i].name), clone3_with(&a, sizeof a));
    }
    struct clone_args a = {.exit_signal = SIGCHLD};
    RESULT("clone3, too small", clone3_with(&a, 56));
    RESULT("clone3, a huge size", clone3_with(&a, 5000));
    char big[128] = {0};
    big[120] = 1;
    memcpy(big, &a, sizeof a);
    RESULT("clone3, unknown fields set", clone3_with((struct clone_args *)big, sizeof big));
    big[120] = 0;
    long child = clone3_with((struct clone_args *)big, sizeof big);
    CHECK("clone3, unknown fields clear", child > 0 && waitpid(child, &status, 0) == child && status == 0x500);
    a.stack = 4096;
    RESULT("clone3, a stack without size", clone3_with(&a, sizeof a));
    a.stack = 0;
    a.stack_size = 4096;
    RESULT("clone3, a size without stack", clone3_with(&a, sizeof a));
    RESULT("clone3 from nowhere", syscall(SYS_clone3, 8, sizeof a));
    int fd = -1;
    a = (struct clone_args){.flags = CLONE_PIDFD, .pidfd = (unsigned long)&fd, .exit_signal = SIGCHLD};
    child = clone3_with(&a, sizeof a);
    CHECK("clone3, CLONE_PIDFD", child > 0 && fd >= 0);
    show("it is close-on-exec", "%d", fcntl(fd, F_GETFD));
    siginfo_t info = {0};
    RESULT("waitid of the pidfd", waitid(P_PIDFD, fd, &info, WEXITED));
    show("its end", "%s", info_of(&info, child));
    RESULT("waitid of it again", waitid(P_PIDFD, fd, &info, WEXITED));
    RESULT("a signal to it", syscall(SYS_pidfd_send_signal, fd, 0, NULL, 0));
    close(fd);
    // Dispositions.
    signal(SIGUSR1, SIG_IGN);
    struct sigaction handler = {.sa_sigaction = tells, .sa_flags = SA_SIGINFO};
    sigaction(SIGUSR2, &handler, NULL);
    a = (struct clone_args){.flags = CLONE_CLEAR_SIGHAND, .exit_signal = SIGCHLD};
    child = syscall(SYS_clone3, &a, sizeof a);
    if (child == 0) {
        struct sigaction now;
        sigaction(SIGUSR1, NULL, &now);
        int bad = now.sa_handler != SIG_IGN;
        sigaction(SIGUSR2, NULL, &now);
        _exit(bad | (now.sa_handler != SIG_DFL) << 1);
    }
    waitpid(child, &status, 0);
    show("CLONE_CLEAR_SIGHAND", "%x", status);
    signal(SIGUSR1, SIG_DFL);
    signal(SIGUSR2, SIG_DFL);
    // vfork: the child's writes are the parent's, and the parent waits.
    volatile int mark = 1;
    child = vfork();
    if (child == 0) {
        mark = 2;
        _exit(9);
    }
    show("vfork shares memory", "%d", mark);
    waitpid(child, &status, 0);
    show("vfork's child", "%x", status);
    int old = dup(1);
    child = syscall(SYS_clone, CLONE_FILES | SIGCHLD, 0, 0, 0, 0);
    if (child == 0) {
        close(old);
        _exit(0);
    }
    waitpid(child, &status, 0);
    RESULT("CLONE_FILES shares descriptors", fcntl(old, F_GETFD));
    child = syscall(SYS_clone, CLONE_FS | SIGCHLD, 0, 0, 0, 0);
    if (child == 0) {
        umask(077);
        _exit(0);
    }
    waitpid(child, &status, 0);
    show("CLONE_FS shares the umask", "%o", umask(022));
}

static void pidfds(void) {
    int status;
    pid_t child = child_that(sleeps);
    int fd = -1;
    WORKS("pidfd_open", fd = syscall(SYS_pidfd_open, child, 0));
    show("close-on-exec", "%d", fcntl(fd, F_GETFD));
    show("flags", "%o", fcntl(fd, F_GETFL) & ~0100000);
    RESULT("pidfd_open with flags", syscall(SYS_pidfd_open, child, 1));
    RESULT("pidfd_open of 0", syscall(SYS_pidfd_open, 0, 0));
    RESULT("pidfd_open of a negative", syscall(SYS_pidfd_open, -1, 0));
    RESULT("pidfd_open of nobody", syscall(SYS_pidfd_open, 4000000, 0));
    char b[8];
    RESULT("read", read(fd, b, 8));
    RESULT("write", write(fd, b, 8));
    struct pollfd p = {.fd = fd, .events = POLLIN};
    show("events of a living one", "%d", poll(&p, 1, 0));
    RESULT("signal 0", syscall(SYS_pidfd_send_signal, fd, 0, NULL, 0));
    RESULT("a signal that is none", syscall(SYS_pidfd_send_signal, fd, 65, NULL, 0));
    RESULT("flags of a signal", syscall(SYS_pidfd_send_signal, fd, 0, NULL, 0x100));
    RESULT("a signal to no pidfd", syscall(SYS_pidfd_send_signal, 0, 0, NULL, 0));
    RESULT("a signal to a closed descriptor", syscall(SYS_pidfd_send_signal, 99, 0, NULL, 0));
    siginfo_t info = {.si_signo = SIGUSR2, .si_code = SI_QUEUE};
    RESULT("siginfo of another signal", syscall(SYS_pidfd_send_signal, fd, SIGUSR1, &info, 0));
    info.si_signo = SIGUSR1;
    info.si_code = SI_USER;
    RESULT("siginfo that lies", syscall(SYS_pidfd_send_signal, fd, SIGUSR1, &info, 0));
    int pipes[2];
    if (pipe(pipes) != 0)
        return;
    pid_t holder = fork();
    if (holder == 0)
        sleeps();
    int other = syscall(SYS_pidfd_open, holder, 0), taken = -1;
    WORKS("pidfd_getfd", taken = syscall(SYS_pidfd_getfd, other, pipes[1], 0));
    RESULT("write through it", write(taken, "x", 1));
    RESULT("it came", read(pipes[0], b, 1));
    RESULT("pidfd_getfd of a closed one", syscall(SYS_pidfd_getfd, other, 999, 0));
    RESULT("pidfd_getfd with flags", syscall(SYS_pidfd_getfd, other, 0, 1));
    RESULT("pidfd_getfd of no pidfd", syscall(SYS_pidfd_getfd, pipes[0], 0, 0));
    kill(holder, SIGKILL);
    waitpid(holder, &status, 0);
    RESULT("pidfd_getfd of the dead", syscall(SYS_pidfd_getfd, other, 0, 0));
    close(other);
    RESULT("SIGTERM", syscall(SYS_pidfd_send_signal, fd, SIGTERM, NULL, 0));
    int polled = poll(&p, 1, 5000);
    show("poll until it ends", "%d %x", polled, p.revents);
    RESULT("a signal to the zombie", syscall(SYS_pidfd_send_signal, fd, 0, NULL, 0));
    RESULT("waitid WNOWAIT", waitid(P_PIDFD, fd, &info, WEXITED | WNOWAIT));
    show("it", "%s", info_of(&info, child));
    waitpid(child, &status, 0);
    polled = poll(&p, 1, 0);
    show("events when it is reaped", "%d %x", polled, p.revents & POLLIN);
    RESULT("a signal to the reaped", syscall(SYS_pidfd_send_signal, fd, 0, NULL, 0));
    close(fd);
    child = child_that(sleeps);
    fd = syscall(SYS_pidfd_open, child, O_NONBLOCK);
    RESULT("waitid of a non-blocking pidfd", waitid(P_PIDFD, fd, &info, WEXITED));
    kill(child, SIGKILL);
    poll(&(struct pollfd){.fd = fd, .events = POLLIN}, 1, 5000);
    RESULT("then", waitid(P_PIDFD, fd, &info, WEXITED));
    close(fd);
}

static int run(char *const argv[], char *const envp[], const char *path) {
    int status;
    pid_t child = fork();
    if (child == 0) {
        execve(path, argv, envp);
        _exit(errno);
    }
    waitpid(child, &status, 0);
    return status;
}

static void put_file(const char *name, const char *text, int mode) {
    int fd = open(name, O_WRONLY | O_CREAT | O_TRUNC, 0755);
    if (write(fd, text, strlen(text)) < 0)
        perror(name);
    fchmod(fd, mode);
    close(fd);
}

static void programs(void) {
    int status;
    char *argv[] = {"x", "one", "two words", NULL}, *envp[] = {"VALUE=7", NULL};
    scratch();
    put_file("script", "#!/bin/sh\nexit $#\n", 0755);
    put_file("argument", "#!/bin/sh -c exit\\ 9\n", 0755);
    put_file("nested", "#!./script a\n", 0755);
    put_file("spaces", "#!   /bin/sh   -e  \nexit 5\n", 0755);
    put_file("empty", "", 0755);
    put_file("text", "exit 3\n", 0755);
    put_file("noexec", "#!/bin/sh\nexit 1\n", 0644);
    put_file("nobody", "#!/no/such/interpreter\n", 0755);
    put_file("blank", "#!\n", 0755);
    put_file("environment", "#!/bin/sh\nexit $VALUE\n", 0755);
    put_file("interpreter-is-a-directory", "#!/tmp\n", 0755);
    char name[16], line[128];
    for (int i = 1; i < 8; i++) {
        snprintf(name, sizeof name, "level%d", i);
        if (i == 1)
            snprintf(line, sizeof line, "#!/bin/sh\nexit 40\n");
        else
            snprintf(line, sizeof line, "#!%s/level%d\n", scratch_path, i - 1);
        put_file(name, line, 0755);
    }
    mkdir("directory", 0755);
    static const char *paths[] = {"./script", "./argument", "./nested", "./spaces", "./empty", "./text", "./noexec", "./nobody", "./blank", "./environment", "./missing", "./directory", "./interpreter-is-a-directory", "./script/x", "", "./level1", "./level2", "./level3", "./level4", "./level5", "./level6", "./level7"};
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++)
        show(CASE("exec %s", paths[i]), "%d", WEXITSTATUS(run(argv, envp, paths[i])));
    char *huge = malloc(200000);
    memset(huge, 'x', 200000);
    huge[131072] = 0;
    char *long_argv[] = {"x", huge, NULL};
    show("exec with an argument of 128 KiB", "%d", WEXITSTATUS(run(long_argv, envp, "./script")));
    huge[131071] = 0;
    show("exec with one byte less", "%d", WEXITSTATUS(run(long_argv, envp, "./script")));
    free(huge);
    // execveat.
    int fd = open("script", O_RDONLY), dir = open(".", O_RDONLY | O_DIRECTORY), link = symlink("script", "link");
    static const struct { const char *name, *path; int which, flags; } at[] = {
        {"a descriptor", "", 0, AT_EMPTY_PATH}, {"a descriptor without the flag", "", 0, 0}, {"a name in a directory", "script", 1, 0}, {"a link", "link", 1, 0},
        {"a link, not followed", "link", 1, AT_SYMLINK_NOFOLLOW}, {"unknown flags", "script", 1, 4}, {"a directory", "", 1, AT_EMPTY_PATH}, {"a bad descriptor", "", 2, AT_EMPTY_PATH},
        {"a name below a file", "x", 0, 0}, {"a missing name", "missing", 1, 0},
    };
    if (link != 0)
        perror("symlink");
    for (size_t i = 0; i < sizeof at / sizeof *at; i++) {
        pid_t child = fork();
        if (child == 0) {
            syscall(SYS_execveat, at[i].which == 0 ? fd : at[i].which == 1 ? dir : 99, at[i].path, argv, envp, at[i].flags);
            _exit(errno);
        }
        waitpid(child, &status, 0);
        show(CASE("execveat, %s", at[i].name), "%d", WEXITSTATUS(status));
    }
    // Permission is the caller's own.
    put_file("owners", "#!/bin/sh\nexit 2\n", 0744);
    chmod(scratch_path, 0755);
    if (geteuid() == 0) {
        pid_t child = fork();
        if (child == 0) {
            if (setgid(1234) || setuid(1234))
                _exit(99);
            execve("./owners", argv, envp);
            _exit(errno);
        }
        waitpid(child, &status, 0);
        show("exec of what only the owner may run", "%d", WEXITSTATUS(status));
    } else {
        show("exec of what only the owner may run", "%d", EACCES);
    }
    // What exec resets and what it keeps.
    signal(SIGUSR1, SIG_IGN);
    struct sigaction handler = {.sa_sigaction = tells, .sa_flags = SA_SIGINFO};
    sigaction(SIGUSR2, &handler, NULL);
    pid_t child = fork();
    if (child == 0) {
        sigset_t blocked;
        sigemptyset(&blocked);
        sigaddset(&blocked, SIGWINCH);
        sigprocmask(SIG_SETMASK, &blocked, NULL);
        char *grep[] = {"grep", "-E", "^Sig(Blk|Cgt)", "/proc/self/status", NULL};
        execv("/bin/grep", grep);
        _exit(99);
    }
    waitpid(child, &status, 0);
    signal(SIGUSR1, SIG_DFL);
    signal(SIGUSR2, SIG_DFL);
    close(fd);
    close(dir);
}

static void attributes(void) {
    char name[32] = {0};
    RESULT("PR_SET_NAME", prctl(PR_SET_NAME, "a name that is far too long"));
    RESULT("PR_GET_NAME", prctl(PR_GET_NAME, name));
    show("the name", "%s", name);
    RESULT("PR_SET_NAME from nowhere", prctl(PR_SET_NAME, 8));
    int signal_number = -1;
    RESULT("PR_SET_PDEATHSIG", prctl(PR_SET_PDEATHSIG, SIGUSR1));
    RESULT("PR_GET_PDEATHSIG", prctl(PR_GET_PDEATHSIG, &signal_number));
    show("the signal", "%d", signal_number);
    RESULT("PR_SET_PDEATHSIG of no signal", prctl(PR_SET_PDEATHSIG, 65));
    prctl(PR_SET_PDEATHSIG, 0);
    RESULT("PR_GET_DUMPABLE", prctl(PR_GET_DUMPABLE));
    RESULT("PR_SET_DUMPABLE 0", prctl(PR_SET_DUMPABLE, 0));
    RESULT("PR_GET_DUMPABLE then", prctl(PR_GET_DUMPABLE));
    RESULT("PR_SET_DUMPABLE 2", prctl(PR_SET_DUMPABLE, 2));
    prctl(PR_SET_DUMPABLE, 1);
    RESULT("PR_GET_KEEPCAPS", prctl(PR_GET_KEEPCAPS));
    RESULT("PR_SET_KEEPCAPS", prctl(PR_SET_KEEPCAPS, 1));
    RESULT("PR_GET_KEEPCAPS then", prctl(PR_GET_KEEPCAPS));
    RESULT("PR_SET_KEEPCAPS 2", prctl(PR_SET_KEEPCAPS, 2));
    prctl(PR_SET_KEEPCAPS, 0);
    RESULT("PR_GET_NO_NEW_PRIVS", prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0));
    RESULT("PR_SET_NO_NEW_PRIVS 0", prctl(PR_SET_NO_NEW_PRIVS, 0, 0, 0, 0));
    RESULT("PR_SET_NO_NEW_PRIVS with more", prctl(PR_SET_NO_NEW_PRIVS, 1, 1, 0, 0));
    RESULT("PR_GET_TIMERSLACK", prctl(PR_GET_TIMERSLACK));
    RESULT("PR_SET_TIMERSLACK", prctl(PR_SET_TIMERSLACK, 12345));
    RESULT("PR_GET_TIMERSLACK then", prctl(PR_GET_TIMERSLACK));
    RESULT("PR_SET_TIMERSLACK 0", prctl(PR_SET_TIMERSLACK, 0));
    RESULT("PR_GET_TIMERSLACK at last", prctl(PR_GET_TIMERSLACK));
    RESULT("PR_GET_THP_DISABLE", prctl(PR_GET_THP_DISABLE, 0, 0, 0, 0));
    RESULT("PR_SET_THP_DISABLE", prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0));
    RESULT("PR_GET_THP_DISABLE then", prctl(PR_GET_THP_DISABLE, 0, 0, 0, 0));
    RESULT("PR_SET_THP_DISABLE with more", prctl(PR_SET_THP_DISABLE, 1, 1, 0, 0));
    prctl(PR_SET_THP_DISABLE, 0, 0, 0, 0);
    RESULT("PR_CAPBSET_READ 41", prctl(PR_CAPBSET_READ, 41 + 20));
    RESULT("PR_GET_SECUREBITS", prctl(PR_GET_SECUREBITS));
    RESULT("PR_GET_TSC to nowhere", prctl(PR_GET_TSC, 8));
    RESULT("PR_GET_TID_ADDRESS to nowhere", prctl(PR_GET_TID_ADDRESS, 8));
    RESULT("PR_MCE_KILL_GET", prctl(PR_MCE_KILL_GET, 0, 0, 0, 0));
    RESULT("PR_GET_TIMING", prctl(PR_GET_TIMING));
    RESULT("PR_SET_TIMING 1", prctl(PR_SET_TIMING, 1));
    RESULT("prctl of nothing", prctl(12345, 0, 0, 0, 0));
    RESULT("personality", syscall(SYS_personality, 0xffffffff));
    // Limits.
    struct rlimit limit, old;
    for (int i = 0; i < 17; i++)
        RESULT(CASE("getrlimit %d", i), getrlimit(i, &limit));
    getrlimit(RLIMIT_NOFILE, &old);
    limit = (struct rlimit){10, 5};
    RESULT("a soft limit above the hard one", setrlimit(RLIMIT_NOFILE, &limit));
    limit = (struct rlimit){old.rlim_max < 100 ? old.rlim_max : 100, old.rlim_max};
    RESULT("setrlimit", setrlimit(RLIMIT_NOFILE, &limit));
    RESULT("a descriptor beyond it", dup2(0, 200));
    RESULT("prlimit of another", prlimit(4000000, RLIMIT_NOFILE, NULL, &limit));
    int status;
    pid_t child = child_that(sleeps);
    struct rlimit core = {0, 0};
    RESULT("prlimit of a child", prlimit(child, RLIMIT_CORE, &core, NULL));
    memset(&limit, 1, sizeof limit);
    prlimit(child, RLIMIT_CORE, NULL, &limit);
    show("the child's limit", "%ld %ld", (long)limit.rlim_cur, (long)limit.rlim_max);
    // Priorities.
    errno = 0;
    show("nice at first", "%d", getpriority(PRIO_PROCESS, 0));
    RESULT("setpriority", setpriority(PRIO_PROCESS, child, 5));
    show("nice of the child", "%d", getpriority(PRIO_PROCESS, child));
    RESULT("setpriority beyond the end", setpriority(PRIO_PROCESS, child, 100));
    show("nice then", "%d", getpriority(PRIO_PROCESS, child));
    RESULT("setpriority of nobody", setpriority(PRIO_PROCESS, 4000000, 5));
    RESULT("setpriority of a strange kind", setpriority(7, 0, 5));
    RESULT("getpriority of nobody", getpriority(PRIO_PROCESS, 4000000));
    RESULT("getpriority of a strange kind", getpriority(-1, 0));
    RESULT("ioprio_get", syscall(SYS_ioprio_get, 1, child) >= 0 ? 0 : -1);
    RESULT("ioprio_set", syscall(SYS_ioprio_set, 1, child, 2 << 13 | 6));
    RESULT("ioprio_get then", syscall(SYS_ioprio_get, 1, child));
    RESULT("ioprio_set idle", syscall(SYS_ioprio_set, 1, child, 3 << 13));
    RESULT("ioprio_get idle", syscall(SYS_ioprio_get, 1, child));
    RESULT("ioprio_set, level 8", syscall(SYS_ioprio_set, 1, child, 2 << 13 | 8) == -1 ? -1 : 0);
    RESULT("ioprio_set of a strange kind", syscall(SYS_ioprio_set, 9, child, 2 << 13));
    RESULT("ioprio_get of nobody", syscall(SYS_ioprio_get, 1, 4000000));
    // Scheduling.
    struct sched_param param = {0};
    RESULT("sched_getscheduler", sched_getscheduler(child));
    param.sched_priority = 1;
    RESULT("SCHED_OTHER with a priority", sched_setscheduler(child, SCHED_OTHER, &param));
    param.sched_priority = 0;
    RESULT("SCHED_BATCH", sched_setscheduler(child, SCHED_BATCH, &param));
    RESULT("sched_getscheduler then", sched_getscheduler(child));
    RESULT("SCHED_IDLE", sched_setscheduler(child, SCHED_IDLE, &param));
    RESULT("sched_getscheduler idle", sched_getscheduler(child));
    RESULT("SCHED_FIFO without a priority", sched_setscheduler(child, SCHED_FIFO, &param));
    RESULT("a strange policy", sched_setscheduler(child, 42, &param));
    RESULT("sched_setscheduler of nobody", sched_setscheduler(4000000, SCHED_OTHER, &param));
    RESULT("sched_setscheduler of a negative", sched_setscheduler(-1, SCHED_OTHER, &param));
    RESULT("sched_getparam", sched_getparam(child, &param));
    RESULT("sched_getparam of nobody", sched_getparam(4000000, &param));
    struct timespec interval;
    RESULT("sched_rr_get_interval", sched_rr_get_interval(0, &interval));
    RESULT("sched_rr_get_interval of nobody", sched_rr_get_interval(4000000, &interval));
    RESULT("sched_rr_get_interval of a negative", sched_rr_get_interval(-1, &interval));
    static const int policies[] = {0, 1, 2, 3, 4, 5, 6, 99, -1};
    for (int i = 0; i < 9; i++) {
        RESULT(CASE("highest priority of policy %d", policies[i]), sched_get_priority_max(policies[i]));
        RESULT(CASE("lowest priority of policy %d", policies[i]), sched_get_priority_min(policies[i]));
    }
    struct { unsigned size, policy; unsigned long flags; int nice; unsigned priority; unsigned long runtime, deadline, period; unsigned umin, umax; } attr;
    memset(&attr, 0x11, sizeof attr);
    RESULT("sched_getattr", syscall(SYS_sched_getattr, child, &attr, sizeof attr, 0));
    show("attributes", "%u policy %u flags %lu priority %u", attr.size, attr.policy, attr.flags, attr.priority);
    RESULT("sched_getattr, too small", syscall(SYS_sched_getattr, child, &attr, 10, 0));
    RESULT("sched_getattr with flags", syscall(SYS_sched_getattr, child, &attr, sizeof attr, 1));
    RESULT("sched_getattr of nobody", syscall(SYS_sched_getattr, 4000000, &attr, sizeof attr, 0));
    memset(&attr, 0, sizeof attr);
    attr.size = 48;
    attr.policy = SCHED_BATCH;
    attr.nice = 7;
    RESULT("sched_setattr", syscall(SYS_sched_setattr, child, &attr, 0));
    syscall(SYS_sched_getattr, child, &attr, sizeof attr, 0);
    show("attributes then", "policy %u nice %d", attr.policy, attr.nice);
    show("nice by getpriority", "%d", getpriority(PRIO_PROCESS, child));
    attr.policy = 42;
    RESULT("sched_setattr, a strange policy", syscall(SYS_sched_setattr, child, &attr, 0));
    RESULT("sched_setattr with flags", syscall(SYS_sched_setattr, child, &attr, 1));
    cpu_set_t cpus;
    CHECK("sched_getaffinity", sched_getaffinity(0, sizeof cpus, &cpus) == 0 && CPU_COUNT(&cpus) > 0);
    RESULT("sched_getaffinity, odd size", sched_getaffinity(0, 3, &cpus));
    CPU_ZERO(&cpus);
    RESULT("sched_setaffinity to none", sched_setaffinity(0, sizeof cpus, &cpus));
    CPU_SET(0, &cpus);
    RESULT("sched_setaffinity to the first", sched_setaffinity(child, sizeof cpus, &cpus));
    RESULT("sched_yield", sched_yield());
    kill(child, SIGKILL);
    waitpid(child, &status, 0);
}

static void identities(void) {
    uid_t r, e, s;
    gid_t list[64];
    RESULT("getresuid", getresuid(&r, &e, &s));
    CHECK("all of them alike", r == e && e == s && r == getuid() && e == geteuid());
    RESULT("getgroups, negative", syscall(SYS_getgroups, -1, list));
    CHECK("getgroups", getgroups(0, list) >= 0);
    if (geteuid() != 0) {
        return;
    }
    int status;
    pid_t child = fork();
    if (child == 0) {
        gid_t some[] = {7, 8, 9};
        RESULT("setgroups", setgroups(3, some));
        RESULT("getgroups then", getgroups(64, list));
        RESULT("getgroups, too small", getgroups(2, list));
        RESULT("setresgid", setresgid(10, 20, 30));
        RESULT("setresuid", setresuid(1000, 2000, 3000));
        getresuid(&r, &e, &s);
        show("ids", "%u %u %u", r, e, s);
        RESULT("setuid to the saved", setuid(3000));
        RESULT("setuid to a stranger", setuid(5));
        RESULT("seteuid to the real", seteuid(1000));
        RESULT("setresuid to a stranger", setresuid(-1, 77, -1));
        RESULT("setreuid swaps", setreuid(1000, 1000));
        getresuid(&r, &e, &s);
        show("ids then", "%u %u %u", r, e, s);
        RESULT("setgroups as a user", setgroups(0, NULL));
        RESULT("setpriority upwards", setpriority(PRIO_PROCESS, 0, -5));
        RESULT("a real-time policy", sched_setscheduler(0, SCHED_FIFO, &(struct sched_param){.sched_priority = 1}));
        RESULT("kill of root's", kill(getppid(), SIGTERM));
        RESULT("kill 0 of root's", kill(getppid(), 0));
        struct rlimit limit;
        getrlimit(RLIMIT_CORE, &limit);
        limit.rlim_cur = 0;
        limit.rlim_max = 0;
        RESULT("lower a hard limit", setrlimit(RLIMIT_CORE, &limit));
        limit.rlim_max = 1;
        RESULT("raise a hard limit", setrlimit(RLIMIT_CORE, &limit));
        _exit(0);
    }
    waitpid(child, &status, 0);
    show("status", "%x", status);
}

// What ps shows is read from the process's memory, where it may be written over (setproctitle(3)).
static void title(const char *name) {
    char text[256];
    int fd = open("/proc/self/cmdline", O_RDONLY);
    ssize_t n = read(fd, text, sizeof text - 1);
    close(fd);
    for (ssize_t i = 0; i < n; i++)
        if (text[i] == 0) text[i] = '|';
    text[n > 0 ? n : 0] = 0;
    show(name, "%zd %s", n, text);
}

static void titles(void) {
    // Arguments of known length, and an environment behind them.
    fflush(stdout);
    if (fork() == 0)
        execve("/proc/self/exe", (char *[]){"titles", "one", "two", NULL}, (char *[]){"A=1", "LONG=0123456789", NULL});
    wait(NULL);
}

static void titled(char **argv) {
    extern char **environ;
    title("title as it was");
    CHECK("arguments and environment are one piece", environ[0] == argv[2] + strlen(argv[2]) + 1);
    strcpy(argv[0], "short");
    title("title shorter than the first argument");
    memset(argv[0], 'x', environ[0] - argv[0]);
    title("title over all arguments");
    strcpy(argv[0], "a title that goes on over the environment");
    title("title over the environment");
    memset(argv[0], 0, environ[0] - argv[0]);
    strcpy(argv[0], "padded");
    title("title with padding");
}

int main(int argc, char **argv) {
    if (argc == 3) {
        titled(argv);
        return 0;
    }
    setvbuf(stdout, NULL, _IONBF, 0);
    setpriority(PRIO_PROCESS, 0, 0); // whatever the tests were started with
    waiting();
    child_signals();
    groups();
    orphans();
    births();
    pidfds();
    attributes();
    identities();
    programs();
    titles();
    return 0;
}

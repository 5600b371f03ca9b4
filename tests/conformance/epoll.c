// epoll: arguments, level and edge, EPOLLONESHOT, EPOLLEXCLUSIVE, EPOLLRDHUP, duplicates, nested sets, several waiters, time-outs, masks.
#include "net.h"
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <pthread.h>
#include <time.h>

static int *volatile bad_address = (int *)8;
static volatile int minus_one = -1, very_many = 0x7fffffff;

static int change(int ep, int op, int fd, unsigned events, long data) {
    struct epoll_event e = {.events = events, .data.u64 = data};
    return epoll_ctl(ep, op, fd, &e);
}

static const char *mask(unsigned events) {
    static char text[4][128];
    static int next;
    static const struct {
        unsigned bit;
        const char *name;
    } names[] = {{EPOLLIN, "IN "},         {EPOLLPRI, "PRI "},       {EPOLLOUT, "OUT "},       {EPOLLERR, "ERR "},
                 {EPOLLHUP, "HUP "},       {EPOLLRDNORM, "RDNORM "}, {EPOLLWRNORM, "WRNORM "}, {EPOLLRDHUP, "RDHUP "},
                 {EPOLLONESHOT, "ONESHOT "}, {EPOLLET, "ET "}};
    char *t = text[next++ % 4];
    t[0] = 0;
    for (unsigned i = 0; i < sizeof names / sizeof *names; i++)
        if (events & names[i].bit)
            strcat(t, names[i].name);
    return t;
}

// What a set reports now: each event's mask and data.
static void reports(const char *name, int ep) {
    struct epoll_event e[8];
    char line[512] = "";
    int n = epoll_wait(ep, e, 8, 0);
    // By data, so that the order does not matter.
    for (long d = 0; d < 100; d++)
        for (int i = 0; i < n; i++)
            if ((long)e[i].data.u64 == d)
                snprintf(line + strlen(line), 100, "[%ld %s]", d, mask(e[i].events));
    show(name, "%d %s", n, line);
}

static void arguments(void) {
    static const int flags[] = {0, EPOLL_CLOEXEC, 1, O_NONBLOCK, -1};
    for (int i = 0; i < 5; i++) {
        int ep = epoll_create1(flags[i]);
        works_of(CASE("epoll_create1 %x", flags[i]), ep);
        if (ep >= 0)
            show(CASE("close on exec %d", i), "%d", fcntl(ep, F_GETFD));
        close(ep);
    }
    static const int sizes[] = {1, 0, -1, 1000000};
    for (int i = 0; i < 4; i++) {
        int ep = epoll_create(sizes[i]);
        works_of(CASE("epoll_create %d", sizes[i]), ep);
        close(ep);
    }
    int ep = epoll_create1(0), p[2];
    if (pipe(p) != 0)
        return;
    char buffer[8];
    RESULT("read of a set", read(ep, buffer, 8));
    RESULT("write to a set", write(ep, buffer, 8));
    RESULT("lseek of a set", lseek(ep, 0, SEEK_SET));
    struct stat st;
    fstat(ep, &st);
    show("mode", "%o", st.st_mode & S_IFMT);
    static const struct {
        const char *name;
        int op, use, events;
    } cases[] = {{"modify what is not there", EPOLL_CTL_MOD, 0, EPOLLIN}, {"delete what is not there", EPOLL_CTL_DEL, 0, 0},
                 {"add", EPOLL_CTL_ADD, 0, EPOLLIN},                     {"add again", EPOLL_CTL_ADD, 0, EPOLLIN},
                 {"modify", EPOLL_CTL_MOD, 0, EPOLLIN | EPOLLET},        {"a bad operation", 0, 0, EPOLLIN},
                 {"another", 4, 0, EPOLLIN},                             {"delete", EPOLL_CTL_DEL, 0, 0},
                 {"delete again", EPOLL_CTL_DEL, 0, 0},                  {"unknown events", EPOLL_CTL_ADD, 0, 1 << 20}};
    for (unsigned i = 0; i < sizeof cases / sizeof *cases; i++)
        RESULT(cases[i].name, change(ep, cases[i].op, p[cases[i].use], cases[i].events, 1));
    change(ep, EPOLL_CTL_DEL, p[0], 0, 0);
    RESULT("the set itself", change(ep, EPOLL_CTL_ADD, ep, EPOLLIN, 1));
    RESULT("a bad descriptor", change(ep, EPOLL_CTL_ADD, 999, EPOLLIN, 1));
    RESULT("a bad set", change(999, EPOLL_CTL_ADD, p[0], EPOLLIN, 1));
    RESULT("no set", change(p[0], EPOLL_CTL_ADD, p[1], EPOLLIN, 1));
    RESULT("a bad event", epoll_ctl(ep, EPOLL_CTL_ADD, p[0], (void *)bad_address));
    RESULT("no event", epoll_ctl(ep, EPOLL_CTL_ADD, p[0], 0));
    change(ep, EPOLL_CTL_ADD, p[0], EPOLLIN, 1);
    RESULT("delete without an event", epoll_ctl(ep, EPOLL_CTL_DEL, p[0], 0));
    static const struct {
        const char *path;
        int flags;
    } files[] = {{"/etc/passwd", O_RDONLY}, {"/", O_RDONLY}, {"/dev/null", O_RDWR}, {"/dev/zero", O_RDWR}, {"/", O_PATH}, {"/proc/self/maps", O_RDONLY}};
    for (unsigned i = 0; i < sizeof files / sizeof *files; i++) {
        int fd = open(files[i].path, files[i].flags);
        RESULT(CASE("add %s %x", files[i].path, files[i].flags), change(ep, EPOLL_CTL_ADD, fd, EPOLLIN, 1));
        close(fd);
    }
    struct epoll_event e[4];
    RESULT("wait with 0", epoll_wait(ep, e, 0, 0));
    RESULT("wait with -1", epoll_wait(ep, e, minus_one, 0));
    RESULT("wait with very many", epoll_wait(ep, e, very_many, 0));
    RESULT("wait on no set", epoll_wait(p[0], e, 1, 0));
    RESULT("wait on a bad one", epoll_wait(999, e, 1, 0));
    RESULT("wait with nothing ready", epoll_wait(ep, e, 1, 0));
    RESULT("nothing ready, bad address", epoll_wait(ep, (void *)bad_address, 1, 0));
    change(ep, EPOLL_CTL_ADD, p[1], EPOLLOUT, 1);
    RESULT("ready, bad address", epoll_wait(ep, (void *)bad_address, 1, 0));
    RESULT("ready after that", epoll_wait(ep, e, 1, 0));
    RESULT("far address", epoll_wait(ep, (void *)(1ul << 63), 1, 0));
    struct timespec ts = {0, 1000000};
    RESULT("epoll_pwait2", syscall(SYS_epoll_pwait2, ep, e, 4, &ts, 0, 8));
    ts.tv_nsec = 1000000000;
    RESULT("epoll_pwait2 bad time", syscall(SYS_epoll_pwait2, ep, e, 4, &ts, 0, 8));
    ts = (struct timespec){-1, 0};
    RESULT("epoll_pwait2 negative time", syscall(SYS_epoll_pwait2, ep, e, 4, &ts, 0, 8));
    RESULT("epoll_pwait2 no time", syscall(SYS_epoll_pwait2, ep, e, 4, 0, 0, 8));
    sigset_t none;
    sigemptyset(&none);
    RESULT("epoll_pwait with a bad mask size", syscall(SYS_epoll_pwait, ep, e, 4, 0, &none, 4));
    RESULT("epoll_pwait with a bad mask", syscall(SYS_epoll_pwait, ep, e, 4, 0, bad_address, 8));
    change(ep, EPOLL_CTL_DEL, p[1], 0, 0);
    for (int t = 0; t < 3; t++) {
        static const int limits[] = {0, 20, 50};
        struct timespec a, b;
        clock_gettime(CLOCK_MONOTONIC, &a);
        RESULT(CASE("wait %d ms", limits[t]), epoll_wait(ep, e, 4, limits[t]));
        clock_gettime(CLOCK_MONOTONIC, &b);
        long ms = (b.tv_sec - a.tv_sec) * 1000 + (b.tv_nsec - a.tv_nsec) / 1000000;
        CHECK(CASE("it took so long %d", t), ms >= limits[t] - 1);
    }
    close(p[0]);
    close(p[1]);
    close(ep);
}

static void pipes(void) {
    static const unsigned modes[] = {0, EPOLLET, EPOLLONESHOT, EPOLLET | EPOLLONESHOT};
    static const char *names[] = {"level", "edge", "one shot", "edge, one shot"};
    char buffer[70000];
    for (int i = 0; i < 4; i++) {
        int ep = epoll_create1(0), p[2];
        if (pipe2(p, O_NONBLOCK) != 0)
            return;
        const char *n = names[i];
        change(ep, EPOLL_CTL_ADD, p[0], EPOLLIN | modes[i], 1);
        change(ep, EPOLL_CTL_ADD, p[1], EPOLLOUT | modes[i], 2);
        reports(CASE("%s: new", n), ep);
        reports(CASE("%s: again", n), ep);
        write(p[1], "a", 1);
        reports(CASE("%s: a byte", n), ep);
        reports(CASE("%s: still", n), ep);
        write(p[1], "b", 1);
        reports(CASE("%s: another", n), ep);
        read(p[0], buffer, 1);
        reports(CASE("%s: one read", n), ep);
        read(p[0], buffer, 10);
        reports(CASE("%s: all read", n), ep);
        change(ep, EPOLL_CTL_MOD, p[0], EPOLLIN | modes[i], 3);
        reports(CASE("%s: modified, nothing there", n), ep);
        write(p[1], "c", 1);
        reports(CASE("%s: a byte for it", n), ep);
        change(ep, EPOLL_CTL_MOD, p[0], EPOLLIN | modes[i], 4);
        reports(CASE("%s: modified, something there", n), ep);
        change(ep, EPOLL_CTL_MOD, p[0], modes[i], 4);
        reports(CASE("%s: no events wanted", n), ep);
        change(ep, EPOLL_CTL_MOD, p[1], EPOLLOUT | modes[i], 5);
        reports(CASE("%s: writer modified", n), ep);
        while (write(p[1], buffer, sizeof buffer) > 0)
            ;
        reports(CASE("%s: full", n), ep);
        read(p[0], buffer, 65536);
        reports(CASE("%s: drained", n), ep);
        change(ep, EPOLL_CTL_MOD, p[0], EPOLLIN | modes[i], 6);
        change(ep, EPOLL_CTL_MOD, p[1], EPOLLOUT | modes[i], 7);
        reports(CASE("%s: both anew", n), ep);
        close(p[1]);
        reports(CASE("%s: writer closed", n), ep);
        reports(CASE("%s: once more", n), ep);
        change(ep, EPOLL_CTL_MOD, p[0], modes[i], 8);
        reports(CASE("%s: hang-up is always told", n), ep);
        close(p[0]);
        reports(CASE("%s: all closed", n), ep);
        if (pipe2(p, O_NONBLOCK) != 0)
            return;
        change(ep, EPOLL_CTL_ADD, p[1], EPOLLOUT | modes[i], 9);
        close(p[0]);
        reports(CASE("%s: reader closed", n), ep);
        close(p[1]);
        close(ep);
    }
}

static void kinds(void) {
    struct {
        const char *name;
        int fd;
    } all[10];
    int p[2], q[2], n = 0;
    socketpair(AF_UNIX, SOCK_STREAM, 0, p);
    socketpair(AF_UNIX, SOCK_DGRAM, 0, q);
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    sigprocmask(SIG_BLOCK, &set, 0);
    int ev = eventfd(0, 0), full = eventfd(5, 0), sem = eventfd(2, EFD_SEMAPHORE), timer = timerfd_create(CLOCK_MONOTONIC, 0),
        sig = signalfd(-1, &set, 0), inner = epoll_create1(0);
    all[n].name = "stream", all[n++].fd = p[0];
    all[n].name = "dgram", all[n++].fd = q[0];
    all[n].name = "eventfd", all[n++].fd = ev;
    all[n].name = "eventfd with a value", all[n++].fd = full;
    all[n].name = "semaphore", all[n++].fd = sem;
    all[n].name = "timerfd", all[n++].fd = timer;
    all[n].name = "signalfd", all[n++].fd = sig;
    all[n].name = "epoll", all[n++].fd = inner;
    for (int et = 0; et < 2; et++) {
        unsigned m = et ? EPOLLET : 0;
        for (int i = 0; i < n; i++) {
            int ep = epoll_create1(0);
            const char *k = et ? "edge" : "level";
            RESULT(CASE("%s %s: add", all[i].name, k), change(ep, EPOLL_CTL_ADD, all[i].fd, EPOLLIN | EPOLLOUT | EPOLLRDHUP | m, i));
            reports(CASE("%s %s: at first", all[i].name, k), ep);
            unsigned long one = 1;
            if (all[i].fd == p[0])
                send(p[1], "abc", 3, 0);
            if (all[i].fd == q[0])
                send(q[1], "abc", 3, 0);
            if (all[i].fd == ev || all[i].fd == full || all[i].fd == sem)
                write(all[i].fd, &one, 8);
            if (all[i].fd == timer) {
                timerfd_settime(timer, 0, &(struct itimerspec){.it_value = {0, 1000000}}, 0);
                poll(&(struct pollfd){timer, POLLIN, 0}, 1, 1000);
            }
            if (all[i].fd == sig)
                kill(getpid(), SIGUSR1);
            if (all[i].fd == inner)
                change(inner, EPOLL_CTL_ADD, full, EPOLLIN, 1);
            reports(CASE("%s %s: changed", all[i].name, k), ep);
            reports(CASE("%s %s: unchanged", all[i].name, k), ep);
            char buffer[256];
            if (all[i].fd == p[0] || all[i].fd == q[0])
                recv(all[i].fd, buffer, 256, MSG_DONTWAIT);
            else if (all[i].fd == ev || all[i].fd == sem || all[i].fd == timer || all[i].fd == sig)
                read(all[i].fd, buffer, all[i].fd == sig ? 128 : 8);
            if (all[i].fd == inner)
                change(inner, EPOLL_CTL_DEL, full, EPOLLIN, 1);
            reports(CASE("%s %s: taken", all[i].name, k), ep);
            close(ep);
        }
    }
    int ep = epoll_create1(0);
    change(ep, EPOLL_CTL_ADD, p[0], EPOLLIN | EPOLLRDHUP | EPOLLET, 1);
    reports("idle", ep);
    shutdown(p[1], SHUT_WR);
    reports("peer shut", ep);
    reports("told once", ep);
    close(p[1]);
    reports("peer closed", ep);
    reports("that once too", ep);
    for (int i = 0; i < n; i++)
        close(all[i].fd);
    reports("all closed", ep);
    close(ep);
    close(q[1]);
    sigprocmask(SIG_UNBLOCK, &set, 0);
}

static void duplicates(void) {
    int ep = epoll_create1(0), p[2], d;
    if (pipe(p) != 0)
        return;
    d = dup(p[0]);
    RESULT("add", change(ep, EPOLL_CTL_ADD, p[0], EPOLLIN, 1));
    RESULT("add the duplicate", change(ep, EPOLL_CTL_ADD, d, EPOLLIN, 2));
    write(p[1], "x", 1);
    reports("both", ep);
    int old = p[0];
    close(p[0]);
    reports("one descriptor closed, the file lives", ep);
    RESULT("delete a closed descriptor", change(ep, EPOLL_CTL_DEL, old, 0, 0));
    RESULT("delete the other", change(ep, EPOLL_CTL_DEL, d, 0, 0));
    reports("the first is still there", ep);
    dup2(d, old);
    RESULT("the number is back: delete", change(ep, EPOLL_CTL_DEL, old, 0, 0));
    reports("gone", ep);
    // The same number for another file.
    change(ep, EPOLL_CTL_ADD, d, EPOLLIN, 3);
    close(d);
    int e = eventfd(1, 0);
    dup2(e, d);
    RESULT("another file under the number", change(ep, EPOLL_CTL_ADD, d, EPOLLIN, 4));
    reports("both files", ep);
    close(d);
    close(e);
    reports("one file", ep);
    // A set by two descriptors, and in a child.
    int ep2 = dup(ep);
    e = eventfd(1, 0);
    RESULT("add by the duplicate of the set", change(ep2, EPOLL_CTL_ADD, e, EPOLLIN, 5));
    RESULT("it is there", change(ep, EPOLL_CTL_ADD, e, EPOLLIN, 5));
    if (fork() == 0) {
        close(e);
        change(ep, EPOLL_CTL_DEL, old, 0, 0);
        _exit(0);
    }
    wait(0);
    reports("after a child closed its own", ep);
    close(ep);
    reports("by the duplicate", ep2);
    close(ep2);
    close(e);
    close(old);
    close(p[1]);
}

static void nested(void) {
    int sets[8], e = eventfd(0, 0);
    for (int i = 0; i < 8; i++)
        sets[i] = epoll_create1(0);
    change(sets[0], EPOLL_CTL_ADD, e, EPOLLIN, 1);
    // Kernels differ in whether a fifth is too deep.
    int refused = 0;
    for (int i = 1; i < 7; i++) {
        int result = change(sets[i], EPOLL_CTL_ADD, sets[i - 1], EPOLLIN, i);
        if (i < 5)
            show(CASE("depth %d", i), "%d", result);
        refused += result != 0;
    }
    show("too deep at last", "%d", refused > 0);
    RESULT("a cycle of two", change(sets[0], EPOLL_CTL_ADD, sets[1], EPOLLIN, 1));
    RESULT("a cycle of four", change(sets[0], EPOLL_CTL_ADD, sets[3], EPOLLIN, 1));
    for (int i = 0; i < 5; i++)
        reports(CASE("level %d, nothing", i), sets[i]);
    unsigned long one = 1;
    write(e, &one, 8);
    for (int i = 4; i >= 0; i--) {
        reports(CASE("level %d, something", i), sets[i]);
        EVENTS(CASE("poll of level %d", i), sets[i]);
    }
    read(e, &one, 8);
    for (int i = 0; i < 5; i++)
        EVENTS(CASE("poll of level %d, taken", i), sets[i]);
    RESULT("exclusive nested", change(sets[7], EPOLL_CTL_ADD, sets[0], EPOLLIN | EPOLLEXCLUSIVE, 1));
    RESULT("exclusive", change(sets[7], EPOLL_CTL_ADD, e, EPOLLIN | EPOLLEXCLUSIVE, 1));
    RESULT("exclusive cannot be modified", change(sets[7], EPOLL_CTL_MOD, e, EPOLLIN, 1));
    change(sets[7], EPOLL_CTL_DEL, e, 0, 0);
    static const unsigned with[] = {EPOLLOUT, EPOLLET, EPOLLONESHOT, EPOLLRDHUP, EPOLLPRI, EPOLLERR, EPOLLHUP, EPOLLWAKEUP};
    for (unsigned i = 0; i < 8; i++) {
        RESULT(CASE("exclusive with %s%x", mask(with[i]), with[i] & EPOLLWAKEUP),
               change(sets[7], EPOLL_CTL_ADD, e, EPOLLIN | EPOLLEXCLUSIVE | with[i], 1));
        change(sets[7], EPOLL_CTL_DEL, e, 0, 0);
    }
    change(sets[7], EPOLL_CTL_ADD, e, EPOLLIN, 1);
    RESULT("made exclusive later", change(sets[7], EPOLL_CTL_MOD, e, EPOLLIN | EPOLLEXCLUSIVE, 1));
    // An edge through a set.
    int outer = epoll_create1(0), inner = epoll_create1(0);
    change(inner, EPOLL_CTL_ADD, e, EPOLLIN, 1);
    change(outer, EPOLL_CTL_ADD, inner, EPOLLIN | EPOLLET, 2);
    reports("edge outside: nothing", outer);
    one = 1;
    write(e, &one, 8);
    reports("edge outside: a value", outer);
    reports("edge outside: no new one", outer);
    write(e, &one, 8);
    reports("edge outside: another", outer);
    close(inner);
    reports("inner set closed", outer);
    close(outer);
    for (int i = 0; i < 8; i++)
        close(sets[i]);
    close(e);
}

static int shared_ep, shared_fd;
static int woken;

static void *waiter(void *arg) {
    struct epoll_event e;
    int ep = arg ? *(int *)arg : shared_ep;
    if (epoll_wait(ep, &e, 1, 300) == 1)
        __atomic_add_fetch(&woken, 1, __ATOMIC_SEQ_CST);
    return 0;
}

static void waiters(void) {
    pthread_t t[4];
    int sets[4];
    unsigned long one = 1;
    // One edge wakes one of those who wait on one set.
    shared_ep = epoll_create1(0), shared_fd = eventfd(0, 0);
    change(shared_ep, EPOLL_CTL_ADD, shared_fd, EPOLLIN | EPOLLET, 1);
    for (int i = 0; i < 4; i++)
        pthread_create(&t[i], 0, waiter, 0);
    usleep(50000);
    write(shared_fd, &one, 8);
    for (int i = 0; i < 4; i++)
        pthread_join(t[i], 0);
    show("edge: woken of four", "%d", woken);
    close(shared_ep);
    // A set each, not exclusive: all; exclusive: at least one.
    for (int exclusive = 0; exclusive < 2; exclusive++) {
        read(shared_fd, &one, 8);
        woken = 0;
        for (int i = 0; i < 4; i++) {
            sets[i] = epoll_create1(0);
            change(sets[i], EPOLL_CTL_ADD, shared_fd, EPOLLIN | (exclusive ? EPOLLEXCLUSIVE : 0), 1);
            pthread_create(&t[i], 0, waiter, &sets[i]);
        }
        usleep(50000);
        one = 1;
        write(shared_fd, &one, 8);
        for (int i = 0; i < 4; i++)
            pthread_join(t[i], 0);
        show(CASE("sets of their own, exclusive %d", exclusive), "%d", exclusive ? woken >= 1 : woken);
        for (int i = 0; i < 4; i++)
            close(sets[i]);
    }
    // What is added while somebody waits is seen.
    shared_ep = epoll_create1(0);
    woken = 0;
    pthread_create(&t[0], 0, waiter, 0);
    usleep(30000);
    change(shared_ep, EPOLL_CTL_ADD, shared_fd, EPOLLIN, 1);
    pthread_join(t[0], 0);
    show("added while waited for", "%d", woken);
    read(shared_fd, &one, 8);
    woken = 0;
    change(shared_ep, EPOLL_CTL_MOD, shared_fd, 0, 1);
    one = 1;
    write(shared_fd, &one, 8);
    pthread_create(&t[0], 0, waiter, 0);
    usleep(30000);
    change(shared_ep, EPOLL_CTL_MOD, shared_fd, EPOLLIN, 1);
    pthread_join(t[0], 0);
    show("modified while waited for", "%d", woken);
    close(shared_ep);
    close(shared_fd);
}

static volatile int signals;
static void on_signal(int s) { signals += s > 0; }

static void interruptions(void) {
    int ep = epoll_create1(0);
    struct epoll_event e;
    struct sigaction sa = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
    sigaction(SIGALRM, &sa, 0);
    struct itimerval it = {{0, 0}, {0, 20000}};
    setitimer(ITIMER_REAL, &it, 0);
    RESULT("interrupted, SA_RESTART all the same", epoll_wait(ep, &e, 1, 1000));
    show("handlers run", "%d", signals);
    sigset_t block, none;
    sigemptyset(&none);
    sigemptyset(&block);
    sigaddset(&block, SIGALRM);
    sigprocmask(SIG_BLOCK, &block, 0);
    kill(getpid(), SIGALRM);
    RESULT("blocked signal", epoll_wait(ep, &e, 1, 10));
    RESULT("epoll_pwait opens it", epoll_pwait(ep, &e, 1, 1000, &none));
    show("handlers run then", "%d", signals);
    sigset_t now;
    sigprocmask(SIG_BLOCK, 0, &now);
    show("the mask is back", "%d", sigismember(&now, SIGALRM));
    int f = eventfd(1, 0);
    change(ep, EPOLL_CTL_ADD, f, EPOLLIN, 1);
    kill(getpid(), SIGALRM);
    RESULT("ready goes first", epoll_pwait(ep, &e, 1, 1000, &none));
    show("handlers run after it", "%d", signals);
    sigprocmask(SIG_UNBLOCK, &block, 0);
    show("handlers run at last", "%d", signals);
    close(f);
    close(ep);
}

static void many(void) {
    enum { COUNT = 300 };
    static int fds[COUNT];
    struct rlimit l = {COUNT + 50, COUNT + 50};
    setrlimit(RLIMIT_NOFILE, &l);
    int ep = epoll_create1(0);
    struct epoll_event e[COUNT];
    for (int i = 0; i < COUNT; i++) {
        fds[i] = eventfd(i % 3 == 0, 0);
        change(ep, EPOLL_CTL_ADD, fds[i], EPOLLIN, i);
    }
    RESULT("a third of them", epoll_wait(ep, e, COUNT, 0));
    // A few at a time, everyone has a turn.
    static char seen[COUNT];
    int count = 0;
    for (int i = 0; i < 20; i++) {
        int n = epoll_wait(ep, e, 7, 0);
        for (int k = 0; k < n; k++)
            count += !seen[e[k].data.u64], seen[e[k].data.u64] = 1;
    }
    show("all had a turn", "%d", count);
    for (int i = 0; i < COUNT; i += 2)
        close(fds[i]);
    RESULT("half of them closed", epoll_wait(ep, e, COUNT, 0));
    for (int i = 1; i < COUNT; i += 2)
        close(fds[i]);
    RESULT("all closed", epoll_wait(ep, e, COUNT, 0));
    close(ep);
}

int main(void) {
    setvbuf(stdout, 0, _IOFBF, 1 << 16);
    arguments();
    pipes();
    kinds();
    duplicates();
    nested();
    waiters();
    interruptions();
    many();
    return 0;
}

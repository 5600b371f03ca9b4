// poll, ppoll, select, pselect and epoll on everything that can be waited for: what each says of the same state, time-outs, sets, limits.
#include "net.h"
#include <pty.h>
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <termios.h>
#include <time.h>

static const struct {
    int bit;
    const char *name;
} bits[] = {{POLLIN, "IN "},     {POLLPRI, "PRI "},       {POLLOUT, "OUT "},       {POLLERR, "ERR "},  {POLLHUP, "HUP "},
            {POLLNVAL, "NVAL "}, {POLLRDNORM, "RDNORM "}, {POLLWRNORM, "WRNORM "}, {0x80, "RDBAND "}, {0x100 << 1, "WRBAND "}, {POLLRDHUP, "RDHUP "}};

static const char *words(int events) {
    static char text[8][128];
    static int next;
    char *t = text[next++ % 8];
    t[0] = 0;
    for (unsigned i = 0; i < sizeof bits / sizeof *bits; i++)
        if (events & bits[i].bit)
            strcat(t, bits[i].name);
    return t[0] ? t : "none";
}

enum { ALL = POLLIN | POLLPRI | POLLOUT | POLLRDNORM | POLLWRNORM | POLLRDHUP | 0x80 | 0x200 };

// What every way of asking says of a descriptor now.
static void state(const char *what, int fd) {
    char name[200];
    snprintf(name, sizeof name, "%s", what);
    struct pollfd p = {fd, ALL, -1};
    int n = poll(&p, 1, 0);
    show(CASE("%s: poll", name), "%d %s", n, words(p.revents));
    // Errors and hang-ups are told without being asked for.
    p = (struct pollfd){fd, 0, -1};
    n = poll(&p, 1, 0);
    show(CASE("%s: poll for nothing", name), "%d %s", n, words(p.revents));
    struct timespec none = {0, 0};
    p = (struct pollfd){fd, POLLIN | POLLOUT, -1};
    n = ppoll(&p, 1, &none, NULL);
    show(CASE("%s: ppoll", name), "%d %s", n, words(p.revents));
    if (fd >= 0 && fd < FD_SETSIZE) {
        fd_set r, w, e;
        FD_ZERO(&r);
        FD_ZERO(&w);
        FD_ZERO(&e);
        FD_SET(fd, &r), FD_SET(fd, &w), FD_SET(fd, &e);
        struct timeval zero = {0, 0};
        n = select(fd + 1, &r, &w, &e, &zero);
        show(CASE("%s: select", name), "%d %s%s%s", n, n < 0 ? strerrorname_np(errno) : FD_ISSET(fd, &r) ? "r" : "", n >= 0 && FD_ISSET(fd, &w) ? "w" : "",
             n >= 0 && FD_ISSET(fd, &e) ? "e" : "");
    }
    int ep = epoll_create1(0);
    struct epoll_event ev = {.events = ALL};
    if (epoll_ctl(ep, EPOLL_CTL_ADD, fd, &ev) != 0) {
        show(CASE("%s: epoll", name), "%s", strerrorname_np(errno));
    } else {
        n = epoll_wait(ep, &ev, 1, 0);
        show(CASE("%s: epoll", name), "%d %s", n, n > 0 ? words(ev.events) : "");
    }
    close(ep);
}

static void pipes(void) {
    int p[2];
    static char page[65536];
    for (int order = 0; order < 2; order++) {
        if (pipe2(p, O_NONBLOCK) != 0)
            return;
        state(CASE("pipe %d: read end, empty", order), p[0]);
        state(CASE("pipe %d: write end, empty", order), p[1]);
        write(p[1], "x", 1);
        state(CASE("pipe %d: read end, a byte", order), p[0]);
        state(CASE("pipe %d: write end, a byte", order), p[1]);
        while (write(p[1], page, sizeof page) > 0) {
        }
        state(CASE("pipe %d: write end, full", order), p[1]);
        read(p[0], page, 100);
        state(CASE("pipe %d: write end, 100 bytes less", order), p[1]);
        read(p[0], page, 4096);
        state(CASE("pipe %d: write end, a page less", order), p[1]);
        close(p[order]);
        state(CASE("pipe %d: the other closed", order), p[!order]);
        if (order)
            while (read(p[0], page, sizeof page) > 0) {
            }
        state(CASE("pipe %d: the other closed, empty", order), p[!order]);
        close(p[!order]);
    }
    state("closed descriptor", p[0]);
    state("descriptor -1", -1);
    // A FIFO: hang-ups begin when a writer has been there.
    mkfifo("fifo", 0600);
    int r = open("fifo", O_RDONLY | O_NONBLOCK);
    state("fifo: no writer yet", r);
    int w = open("fifo", O_WRONLY | O_NONBLOCK);
    state("fifo: a writer", r);
    state("fifo: its end", w);
    write(w, "bye", 3);
    close(w);
    state("fifo: the writer has gone", r);
    read(r, page, 100);
    state("fifo: and all is read", r);
    int r2 = open("fifo", O_RDONLY | O_NONBLOCK);
    state("fifo: another reader", r2);
    w = open("fifo", O_WRONLY | O_NONBLOCK);
    state("fifo: a writer again", r);
    close(r);
    close(r2);
    state("fifo: without readers", w);
    close(w);
    int both = open("fifo", O_RDWR);
    state("fifo: both ends", both);
    write(both, "x", 1);
    state("fifo: both ends, a byte", both);
    close(both);
    if (pipe2(p, O_DIRECT | O_NONBLOCK) != 0)
        return;
    for (int i = 0; i < 15; i++)
        write(p[1], "x", 1);
    state("packets: room for one", p[1]);
    write(p[1], "x", 1);
    state("packets: full", p[1]);
    close(p[0]), close(p[1]);
}

static void files(void) {
    int fd = open("file", O_RDWR | O_CREAT, 0644);
    state("regular file, empty", fd);
    close(fd);
    fd = open("file", O_WRONLY);
    state("regular file, write only", fd);
    close(fd);
    fd = open(".", O_RDONLY);
    state("directory", fd);
    close(fd);
    fd = open("file", O_PATH);
    state("O_PATH", fd);
    close(fd);
    static const char *devices[] = {"/dev/null", "/dev/zero", "/dev/full", "/dev/urandom"};
    for (int i = 0; i < 4; i++) {
        fd = open(devices[i], O_RDWR);
        state(devices[i], fd);
        close(fd);
    }
    fd = memfd_create("m", 0);
    state("memfd", fd);
    close(fd);
    fd = open("/proc/self/stat", O_RDONLY);
    state("/proc/self/stat", fd);
    close(fd);
}

static void anonymous(void) {
    unsigned long long n = 1;
    int e = eventfd(0, EFD_NONBLOCK);
    state("eventfd 0", e);
    write(e, &n, 8);
    state("eventfd 1", e);
    n = 0xfffffffffffffffdull;
    write(e, &n, 8);
    state("eventfd at its most", e);
    read(e, &n, 8);
    state("eventfd read", e);
    close(e);
    int t = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
    state("timerfd, not armed", t);
    struct itimerspec soon = {{0, 0}, {0, 1}}, late = {{0, 0}, {100, 0}};
    timerfd_settime(t, 0, &late, NULL);
    state("timerfd, armed", t);
    timerfd_settime(t, 0, &soon, NULL);
    usleep(2000);
    state("timerfd, fired", t);
    read(t, &n, 8);
    state("timerfd, read", t);
    close(t);
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    sigprocmask(SIG_BLOCK, &set, NULL);
    int s = signalfd(-1, &set, SFD_NONBLOCK);
    state("signalfd, none", s);
    raise(SIGUSR1);
    state("signalfd, one", s);
    struct signalfd_siginfo info;
    read(s, &info, sizeof info);
    state("signalfd, read", s);
    raise(SIGUSR2 == SIGUSR1 ? SIGUSR1 : SIGCHLD);
    state("signalfd, another signal", s);
    close(s);
    int i = inotify_init1(IN_NONBLOCK);
    state("inotify, nothing watched", i);
    inotify_add_watch(i, ".", IN_CREATE);
    close(open("made", O_CREAT | O_WRONLY, 0600));
    state("inotify, something happened", i);
    char buffer[512];
    read(i, buffer, sizeof buffer);
    state("inotify, read", i);
    close(i);
    int hold[2];
    if (pipe(hold) != 0)
        return;
    pid_t child = fork();
    if (child == 0) {
        close(hold[1]);
        read(hold[0], buffer, 1);
        _exit(0);
    }
    int pd = syscall(SYS_pidfd_open, child, 0);
    state("pidfd, alive", pd);
    close(hold[1]);
    struct pollfd p = {pd, POLLIN, 0};
    poll(&p, 1, 5000);
    state("pidfd, ended", pd);
    waitpid(child, NULL, 0);
    state("pidfd, reaped", pd);
    close(pd);
    close(hold[0]);
    int ep = epoll_create1(0), inner = eventfd(0, 0);
    state("epoll, empty", ep);
    struct epoll_event ev = {.events = EPOLLIN};
    epoll_ctl(ep, EPOLL_CTL_ADD, inner, &ev);
    state("epoll, nothing ready", ep);
    n = 1;
    write(inner, &n, 8);
    state("epoll, something ready", ep);
    close(inner);
    state("epoll, that is closed", ep);
    close(ep);
}

static void terminals(void) {
    int m, s;
    if (openpty(&m, &s, NULL, NULL, NULL) != 0)
        return;
    struct termios t;
    tcgetattr(s, &t);
    t.c_lflag |= ICANON;
    t.c_lflag &= ~ECHO;
    t.c_oflag = 0;
    tcsetattr(s, TCSANOW, &t);
    state("master, idle", m);
    state("slave, idle", s);
    write(m, "half", 4);
    state("slave, half a line", s);
    write(m, " line\n", 6);
    state("slave, a line", s);
    char buffer[64];
    read(s, buffer, 64);
    state("slave, read", s);
    write(s, "out", 3);
    state("master, output", m);
    read(m, buffer, 64);
    t.c_lflag &= ~ICANON;
    t.c_cc[VMIN] = 5, t.c_cc[VTIME] = 0;
    tcsetattr(s, TCSANOW, &t);
    write(m, "abc", 3);
    state("slave, fewer than VMIN", s);
    write(m, "de", 2);
    state("slave, VMIN bytes", s);
    t.c_cc[VMIN] = 1;
    tcsetattr(s, TCSANOW, &t);
    read(s, buffer, 64);
    int on = 1;
    ioctl(m, TIOCPKT, &on);
    tcflush(s, TCIOFLUSH);
    state("master, packet mode with a change", m);
    read(m, buffer, 64);
    state("master, read", m);
    close(s);
    state("master, slave closed", m);
    s = open(ptsname(m), O_RDWR | O_NOCTTY);
    state("master, slave open again", m);
    close(m);
    state("slave, master closed", s);
    close(s);
}

static void sockets(void) {
    static const int types[] = {SOCK_STREAM, SOCK_DGRAM, SOCK_SEQPACKET};
    static const char *names[] = {"stream", "dgram", "seqpacket"};
    char buffer[64];
    int p[2];
    for (int i = 0; i < 3; i++) {
        int s = socket(AF_UNIX, types[i], 0);
        state(CASE("unix %s: unconnected", names[i]), s);
        close(s);
        for (int unread = 0; unread < 2; unread++) {
            socketpair(AF_UNIX, types[i], 0, p);
            state(CASE("unix %s: idle", names[i]), p[0]);
            send(p[1], "x", 1, 0);
            state(CASE("unix %s: a byte", names[i]), p[0]);
            if (unread)
                send(p[0], "y", 1, 0);
            shutdown(p[1], SHUT_WR);
            state(CASE("unix %s: peer shut for writing", names[i]), p[0]);
            recv(p[0], buffer, 64, 0);
            state(CASE("unix %s: and read", names[i]), p[0]);
            close(p[1]);
            state(CASE("unix %s: peer closed, unread %d", names[i], unread), p[0]);
            close(p[0]);
        }
    }
    int l = socket(AF_INET, SOCK_STREAM, 0), c = socket(AF_INET, SOCK_STREAM, 0), x;
    state("tcp: new", c);
    bind_to(l, in4("127.0.0.1", 0));
    state("tcp: bound", l);
    listen(l, 4);
    state("tcp: listening", l);
    connect_to(c, name_of(l));
    struct pollfd w = {l, POLLIN, 0};
    poll(&w, 1, 5000);
    state("tcp: a connection to accept", l);
    state("tcp: connected, not accepted", c);
    x = accept(l, NULL, NULL);
    state("tcp: listener after", l);
    state("tcp: idle", x);
    send(c, "abc", 3, 0);
    w.fd = x, poll(&w, 1, 5000);
    state("tcp: input", x);
    recv(x, buffer, 64, 0);
    send(c, "!", 1, MSG_OOB);
    w = (struct pollfd){x, POLLPRI, 0}, poll(&w, 1, 5000);
    state("tcp: urgent", x);
    recv(x, buffer, 1, MSG_OOB);
    state("tcp: urgent taken", x);
    shutdown(c, SHUT_WR);
    w = (struct pollfd){x, POLLRDHUP, 0}, poll(&w, 1, 5000);
    state("tcp: peer shut for writing", x);
    state("tcp: shut for writing", c);
    shutdown(x, SHUT_WR);
    w = (struct pollfd){c, POLLRDHUP, 0}, poll(&w, 1, 5000);
    state("tcp: both shut", c);
    close(x);
    close(c);
    c = socket(AF_INET, SOCK_STREAM, 0);
    connect_to(c, name_of(l));
    x = accept(l, NULL, NULL);
    struct linger reset = {1, 0};
    setsockopt(x, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    close(x);
    w = (struct pollfd){c, POLLIN, 0}, poll(&w, 1, 5000);
    state("tcp: reset", c);
    RESULT("tcp: recv of it", recv(c, buffer, 1, 0));
    state("tcp: reset and told", c);
    close(c);
    address_t gone = name_of(l);
    close(l);
    c = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    connect_to(c, gone);
    w = (struct pollfd){c, POLLOUT, 0}, poll(&w, 1, 5000);
    state("tcp: refused", c);
    close(c);
    int u = socket(AF_INET, SOCK_DGRAM, 0);
    state("udp: new", u);
    connect_to(u, gone);
    send(u, "x", 1, 0);
    state("udp: refused", u);
    recv(u, buffer, 1, MSG_DONTWAIT);
    state("udp: told", u);
    shutdown(u, SHUT_RDWR);
    state("udp: shut", u);
    close(u);
    int n = socket(AF_NETLINK, SOCK_RAW, 0);
    state("netlink", n);
    close(n);
}

// Arguments and time-outs.
static void arguments(void) {
    int p[2];
    if (pipe(p) != 0)
        return;
    struct pollfd one = {p[0], POLLIN, 0}, *volatile nowhere = (void *)8;
    volatile nfds_t too_many = 100000000;
    fd_set *volatile nowhere_set = (void *)8;
    RESULT("poll nothing", poll(NULL, 0, 0));
    RESULT("poll from nowhere", poll(nowhere, 1, 0));
    RESULT("poll too many", poll(&one, too_many, 0));
    struct rlimit old, few = {3, 0};
    getrlimit(RLIMIT_NOFILE, &old);
    few.rlim_max = old.rlim_max;
    struct pollfd four[4] = {{p[0], POLLIN, 0}, {-5, POLLIN, 7}, {p[1], POLLOUT, 0}, {999, POLLIN, 0}};
    setrlimit(RLIMIT_NOFILE, &few);
    RESULT("more than RLIMIT_NOFILE", poll(four, 4, 0));
    RESULT("as many as RLIMIT_NOFILE", poll(four, 3, 0));
    setrlimit(RLIMIT_NOFILE, &old);
    RESULT("four", poll(four, 4, 0));
    show("their events", "%x %x %x %x", four[0].revents, four[1].revents, four[2].revents, four[3].revents);
    struct timespec bad[] = {{0, -1}, {0, 1000000000}, {-1, 0}};
    struct timeval worse[] = {{0, -1}, {0, 1000000}, {-1, 0}};
    for (int i = 0; i < 3; i++) {
        RESULT(CASE("ppoll time %d", i), ppoll(&one, 1, &bad[i], NULL));
        RESULT(CASE("pselect time %d", i), pselect(0, NULL, NULL, NULL, &bad[i], NULL));
        struct timeval t = worse[i];
        if (i != 1) // as glibc hands it on, a million microseconds are a second
            RESULT(CASE("select time %d", i), select(0, NULL, NULL, NULL, &t));
    }
    sigset_t mask;
    sigfillset(&mask);
    struct timespec zero = {0, 0};
    RESULT("ppoll with a set of 4 bytes", syscall(SYS_ppoll, &one, 1, &zero, &mask, 4));
    RESULT("ppoll with a set from nowhere", syscall(SYS_ppoll, &one, 1, &zero, nowhere, 8));
    RESULT("ppoll with no time", syscall(SYS_ppoll, four, 4, NULL, NULL, 8));
    fd_set r, w;
    RESULT("select of -1", select(-1, NULL, NULL, NULL, &(struct timeval){0, 0}));
    RESULT("select from nowhere", select(10, nowhere_set, NULL, NULL, &(struct timeval){0, 0}));
    FD_ZERO(&r);
    FD_SET(50, &r);
    RESULT("select of a closed one", select(51, &r, NULL, NULL, &(struct timeval){0, 0}));
    RESULT("but not so far", select(50, &r, NULL, NULL, &(struct timeval){0, 0}));
    FD_ZERO(&r);
    FD_ZERO(&w);
    FD_SET(p[0], &r), FD_SET(p[1], &w), FD_SET(p[0], &w);
    int n = select(p[1] + 1, &r, &w, NULL, NULL);
    show("select without a time", "%d %d %d %d", n, FD_ISSET(p[0], &r) != 0, FD_ISSET(p[1], &w) != 0, FD_ISSET(p[0], &w) != 0);
    // select(2) says how much time is left; pselect(2) of the C library keeps it.
    struct timeval left = {5, 0};
    FD_ZERO(&w);
    FD_SET(p[1], &w);
    select(p[1] + 1, NULL, &w, NULL, &left);
    show("time left", "%d", left.tv_sec == 4 && left.tv_usec > 0);
    left = (struct timeval){0, 20000};
    FD_ZERO(&r);
    FD_SET(p[0], &r);
    n = select(p[0] + 1, &r, NULL, NULL, &left);
    show("no time left", "%d %ld %ld %d", n, (long)left.tv_sec, (long)left.tv_usec, FD_ISSET(p[0], &r) != 0);
    static const int waits[] = {0, 1, 30};
    for (int i = 0; i < 3; i++) {
        struct timespec a, b;
        clock_gettime(CLOCK_MONOTONIC, &a);
        n = poll(&one, 1, waits[i]);
        clock_gettime(CLOCK_MONOTONIC, &b);
        long ms = (b.tv_sec - a.tv_sec) * 1000 + (b.tv_nsec - a.tv_nsec) / 1000000;
        show(CASE("poll for %d ms", waits[i]), "%d %d", n, ms >= waits[i] && ms < waits[i] + 3000);
    }
    // A descriptor many times over.
    struct pollfd same[3] = {{p[1], POLLOUT, 0}, {p[1], 0, 0}, {p[1], POLLIN | POLLOUT, 0}};
    n = poll(same, 3, 0);
    show("the same thrice", "%d %x %x %x", n, same[0].revents, same[1].revents, same[2].revents);
    close(p[0]);
    close(p[1]);
}

static void on_signal(int n) { (void)n; }

static void *later(void *fd) {
    usleep(20000);
    if (write((int)(long)fd, "x", 1) < 0)
        perror("later");
    return NULL;
}

static void *closes_later(void *fd) {
    usleep(20000);
    close((int)(long)fd);
    return NULL;
}

// Waiting, and what ends it.
static void waiting(void) {
    for (int how = 0; how < 5; how++) {
        int p[2];
        pthread_t t;
        if (pipe(p) != 0)
            return;
        for (int end = 0; end < 2; end++) {
            struct pollfd one = {p[0], POLLIN, 0};
            fd_set r;
            FD_ZERO(&r);
            FD_SET(p[0], &r);
            struct timespec five = {5, 0};
            struct epoll_event ev = {.events = EPOLLIN};
            pthread_create(&t, NULL, end ? closes_later : later, (void *)(long)p[1]);
            int n = -1, ep = epoll_create1(0);
            epoll_ctl(ep, EPOLL_CTL_ADD, p[0], &ev);
            if (how == 0)
                n = poll(&one, 1, 5000);
            if (how == 1)
                n = ppoll(&one, 1, &five, NULL);
            if (how == 2)
                n = select(p[0] + 1, &r, NULL, NULL, &(struct timeval){5, 0});
            if (how == 3)
                n = pselect(p[0] + 1, &r, NULL, NULL, &five, NULL);
            if (how == 4)
                n = epoll_wait(ep, &ev, 1, 5000);
            show(CASE("way %d: woken by %s", how, end ? "the end" : "a byte"), "%d %s", n, how < 2 ? words(one.revents) : how == 4 ? words(ev.events) : FD_ISSET(p[0], &r) ? "r" : "");
            pthread_join(t, NULL);
            close(ep);
            char byte;
            if (!end)
                read(p[0], &byte, 1);
        }
        close(p[0]);
    }
    // A handler ends the wait, SA_RESTART or not.
    for (int restart = 0; restart < 2; restart++) {
        struct sigaction act = {.sa_handler = on_signal, .sa_flags = restart ? SA_RESTART : 0};
        sigaction(SIGALRM, &act, NULL);
        int p[2];
        if (pipe(p) != 0)
            return;
        struct pollfd one = {p[0], POLLIN, 0};
        fd_set r;
        FD_ZERO(&r);
        FD_SET(p[0], &r);
        ualarm(20000, 0);
        RESULT(CASE("poll and a signal, restart %d", restart), poll(&one, 1, 5000));
        ualarm(20000, 0);
        RESULT(CASE("select and a signal, restart %d", restart), select(p[0] + 1, &r, NULL, NULL, NULL));
        int ep = epoll_create1(0);
        ualarm(20000, 0);
        RESULT(CASE("epoll_wait and a signal, restart %d", restart), epoll_wait(ep, &(struct epoll_event){0}, 1, 5000));
        close(ep);
        close(p[0]);
        close(p[1]);
    }
    // The mask of ppoll lets a signal in that waits.
    sigset_t block, none;
    sigemptyset(&none);
    sigemptyset(&block);
    sigaddset(&block, SIGALRM);
    sigprocmask(SIG_BLOCK, &block, NULL);
    raise(SIGALRM);
    RESULT("poll with the signal blocked", poll(NULL, 0, 10));
    RESULT("ppoll that lets it in", ppoll(NULL, 0, &(struct timespec){5, 0}, &none));
    raise(SIGALRM);
    RESULT("pselect that lets it in", pselect(0, NULL, NULL, NULL, &(struct timespec){5, 0}, &none));
    raise(SIGALRM);
    RESULT("epoll_pwait that lets it in", epoll_pwait(epoll_create1(0), &(struct epoll_event){0}, 1, 5000, &none));
    sigprocmask(SIG_UNBLOCK, &block, NULL);
}

// More descriptors than a set of the C library holds.
static void many(void) {
    struct rlimit limit, most;
    getrlimit(RLIMIT_NOFILE, &limit);
    most = limit;
    most.rlim_cur = limit.rlim_max < 3000 ? limit.rlim_max : 3000;
    if (setrlimit(RLIMIT_NOFILE, &most) != 0 || most.rlim_cur < 3000) {
        show("many", "no limit of 3000");
        return;
    }
    int p[2], count = 0;
    if (pipe(p) != 0)
        return;
    static struct pollfd all[2600];
    for (; count < 2600; count++) {
        int fd = count % 2 ? fcntl(p[1], F_DUPFD, 20) : fcntl(p[0], F_DUPFD, 20);
        if (fd != 20 + count) {
            show("many", "descriptor %d is %d", count, fd);
            return;
        }
        all[count] = (struct pollfd){fd, POLLIN | POLLOUT, 0};
    }
    RESULT("poll of 2600", poll(all, 2600, 0));
    write(p[1], "x", 1);
    RESULT("poll of 2600 with a byte", poll(all, 2600, 0));
    show("the last", "%d %x %x", all[2599].fd, all[2598].revents, all[2599].revents);
    unsigned char sets[3][3000 / 8 + 8] = {{0}};
    for (int i = 0; i < 2600; i++)
        sets[0][(20 + i) / 8] |= 1 << (20 + i) % 8, sets[1][(20 + i) / 8] |= 1 << (20 + i) % 8;
    struct timeval zero = {0, 0};
    RESULT("select of 2600", syscall(SYS_select, 2620, sets[0], sets[1], sets[2], &zero));
    show("the last of them", "%d %d %d %d", sets[0][2618 / 8] >> 2618 % 8 & 1, sets[0][2619 / 8] >> 2619 % 8 & 1, sets[1][2618 / 8] >> 2618 % 8 & 1,
         sets[1][2619 / 8] >> 2619 % 8 & 1);
    memset(sets, 0, sizeof sets);
    sets[0][2900 / 8] |= 1 << 2900 % 8;
    RESULT("select of a closed one far up", syscall(SYS_select, 2950, sets[0], NULL, NULL, &zero));
    int ep = epoll_create1(0);
    for (int i = 0; i < 2600; i++) {
        struct epoll_event ev = {.events = EPOLLIN, .data.fd = 20 + i};
        epoll_ctl(ep, EPOLL_CTL_ADD, 20 + i, &ev);
    }
    static struct epoll_event got[3000];
    RESULT("epoll of 2600", epoll_wait(ep, got, 3000, 0));
    RESULT("no more than asked for", epoll_wait(ep, got, 7, 0));
    close(ep);
    for (int i = 0; i < 2600; i++)
        close(20 + i);
    RESULT("when they are closed", poll(all, 2600, 0));
    show("the first", "%x", all[0].revents);
    close(p[0]);
    close(p[1]);
    setrlimit(RLIMIT_NOFILE, &limit);
}

int main(void) {
    setvbuf(stdout, 0, _IOFBF, 1 << 16);
    signal(SIGPIPE, SIG_IGN);
    close_range(3, ~0u, 0);
    scratch();
    only_loopback();
    pipes();
    files();
    anonymous();
    terminals();
    sockets();
    arguments();
    waiting();
    many();
    return 0;
}

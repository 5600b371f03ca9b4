// Pseudoterminals: line editing and echo, input and output modes, VMIN and VTIME, control calls, readiness, hang-up, sessions and job control.
#include "check.h"
#include <fcntl.h>
#include <poll.h>
#include <pty.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>

static int master, slave;
static struct termios fresh;

static const char *shown(const char *bytes, ssize_t n) {
    static char texts[4][20000];
    static int next;
    char *text = texts[next++ % 4], *at = text;
    if (n < 0)
        return strerrorname_np(errno);
    for (ssize_t i = 0; i < n && at - text < 19000; i++) {
        unsigned char c = bytes[i];
        at += c == '\\' || c < 32 || c > 126 ? sprintf(at, "\\%02x", c) : sprintf(at, "%c", c);
    }
    *at = 0;
    return text;
}

// Waits until a descriptor has input; what is not there after two seconds does not come.
static int ready(int fd, int milliseconds) {
    struct pollfd p = {.fd = fd, .events = POLLIN};
    return poll(&p, 1, milliseconds) == 1 && p.revents & POLLIN;
}

static const char *take(int fd) {
    static char bytes[8192];
    if (!ready(fd, 2000))
        return "(nothing)";
    return shown(bytes, read(fd, bytes, sizeof bytes));
}

static void type(const char *keys, size_t n) {
    if (write(master, keys, n) != (ssize_t)n)
        show("typing", "failed");
}

// What the master sees up to a mark.
static const char *up_to(char mark) {
    static char bytes[8192];
    size_t n = 0;
    while (n < sizeof bytes && ready(master, 2000)) {
        ssize_t more = read(master, bytes + n, sizeof bytes - n);
        if (more <= 0)
            break;
        n += more;
        if (bytes[n - 1] == mark)
            return shown(bytes, n - 1);
    }
    return "(no mark)";
}

static void modes(int iflag_on, int iflag_off, int oflag_on, int oflag_off, int lflag_on, int lflag_off) {
    struct termios t = fresh;
    t.c_iflag = (t.c_iflag & ~iflag_off) | iflag_on;
    t.c_oflag = (t.c_oflag & ~oflag_off) | oflag_on;
    t.c_lflag = (t.c_lflag & ~lflag_off) | lflag_on;
    tcsetattr(slave, TCSANOW, &t);
}

static void open_pair(void) {
    if (openpty(&master, &slave, NULL, NULL, NULL) != 0)
        show("openpty", "failed");
    tcgetattr(slave, &fresh);
}

static void close_pair(void) {
    close(slave);
    close(master);
}

static void editing(void) {
    static const struct { const char *name; int ion, ioff, on, off; } kinds[] = {
        {"default", 0, 0, 0, 0}, {"no ECHOE", 0, 0, 0, ECHOE}, {"no ECHOK", 0, 0, 0, ECHOK}, {"no ECHOKE", 0, 0, 0, ECHOKE},
        {"no ECHOCTL", 0, 0, 0, ECHOCTL}, {"ECHOPRT", 0, 0, ECHOPRT, 0}, {"no IEXTEN", 0, 0, 0, IEXTEN}, {"IUTF8", IUTF8, 0, 0, 0},
        {"no ISIG", 0, 0, 0, ISIG}, {"IUCLC", IUCLC, 0, 0, 0}, {"INLCR", INLCR, ICRNL, 0, 0},
    };
    static const struct { const char *name, *keys; } sequences[] = {
        {"letters", "abc"}, {"erase one", "abd\x7f" "c"}, {"erase beyond", "a\x7f\x7f\x7f" "b"}, {"erase control", "a\x01\x7f" "b"},
        {"kill", "abc\x15xy"}, {"word", "one two\x17x"}, {"word with dots", "a.b c_d\x17x"}, {"word and spaces", "ab  \x17x"},
        {"literal", "a\x16\x7f" "b"}, {"literal then erase", "a\x16\x15\x7f" "b"}, {"reprint", "ab\x12" "c"}, {"tab", "ab\tc\x7f\x7f\x7f" "d"},
        {"two bytes", "a\xc3\xa9\x7f" "b"}, {"upper case", "AbC"}, {"carriage return inside", "a\x16\rb"},
    };
    char name[128], keys[64];
    for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++) {
        open_pair();
        modes(kinds[k].ion, kinds[k].ioff, 0, 0, kinds[k].on, kinds[k].off);
        for (size_t s = 0; s < sizeof sequences / sizeof *sequences; s++) {
            snprintf(keys, sizeof keys, "%s~", sequences[s].keys);
            type(keys, strlen(keys));
            snprintf(name, sizeof name, "echo, %s, %s", kinds[k].name, sequences[s].name);
            show(name, "%s", up_to('~'));
            type("\n!", 2);
            snprintf(name, sizeof name, "line end, %s, %s", kinds[k].name, sequences[s].name);
            show(name, "%s", up_to('!'));
            if (strcmp(kinds[k].name, "INLCR") != 0) {
                snprintf(name, sizeof name, "line, %s, %s", kinds[k].name, sequences[s].name);
                show(name, "%s", take(slave));
            }
            tcflush(slave, TCIFLUSH);
        }
        close_pair();
    }
}

static void ends_of_lines(void) {
    open_pair();
    char b[16];
    type("ab\x04", 3);
    show("end of file after letters", "%s", take(slave));
    type("\x04", 1);
    show("end of file alone", "%s", take(slave));
    struct termios t = fresh;
    t.c_cc[VEOL] = ';';
    t.c_cc[VEOL2] = ':';
    tcsetattr(slave, TCSANOW, &t);
    type("a;b:c\n", 6);
    show("VEOL", "%s", take(slave));
    show("VEOL2", "%s", take(slave));
    show("newline after them", "%s", take(slave));
    type("abcdef\n", 7);
    ready(slave, 2000);
    RESULT("a short read", read(slave, b, 3));
    RESULT("the rest of the line", read(slave, b, 16));
    tcsetattr(slave, TCSANOW, &fresh);
    type("one\ntwo\nthr", 11);
    up_to('r');
    int n = -1;
    RESULT("FIONREAD", ioctl(slave, FIONREAD, &n));
    show("FIONREAD counts whole lines", "%d", n);
    show("first line", "%s", take(slave));
    RESULT("flush", tcflush(slave, TCIFLUSH));
    RESULT("FIONREAD after a flush", ioctl(slave, FIONREAD, &n));
    show("nothing is left", "%d", n);
    // From canonical to raw: the line that was begun can be read.
    type("part~", 5);
    up_to('~');
    t = fresh;
    cfmakeraw(&t);
    tcsetattr(slave, TCSANOW, &t);
    show("a line that was begun, in raw mode", "%s", take(slave));
    type("rest", 4);
    ready(slave, 2000);
    usleep(20000);
    tcsetattr(slave, TCSANOW, &fresh);
    show("raw bytes, in canonical mode", "%s", take(slave));
    type("gone", 4);
    usleep(20000);
    RESULT("TCSAFLUSH", tcsetattr(slave, TCSAFLUSH, &fresh));
    type("kept\n", 5);
    show("after TCSAFLUSH", "%s", take(slave));
    close_pair();
}

static void input_modes(void) {
    static const struct { const char *name; int on, off; } kinds[] = {
        {"ICRNL", ICRNL, 0}, {"INLCR", INLCR, ICRNL}, {"IGNCR", IGNCR, ICRNL}, {"IGNCR ICRNL", IGNCR | ICRNL, 0}, {"ISTRIP", ISTRIP, ICRNL},
        {"IUCLC", IUCLC, ICRNL}, {"IUCLC without IEXTEN", IUCLC, ICRNL}, {"PARMRK", PARMRK, ICRNL}, {"PARMRK ISTRIP", PARMRK | ISTRIP, ICRNL}, {"none", 0, ICRNL},
    };
    static const char keys[] = "A\rb\nC\xff\xe1z";
    for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++) {
        open_pair();
        modes(kinds[k].on, kinds[k].off | IXON, 0, 0, 0, ICANON | ECHO | ISIG | (strstr(kinds[k].name, "without") ? IEXTEN : 0));
        type(keys, sizeof keys - 1);
        usleep(20000);
        show(CASE("input, %s", kinds[k].name), "%s", take(slave));
        close_pair();
    }
}

static void output_modes(void) {
    static const struct { const char *name; int on, off; } kinds[] = {
        {"ONLCR", 0, 0}, {"no OPOST", 0, OPOST}, {"no ONLCR", 0, ONLCR}, {"OCRNL", OCRNL, ONLCR}, {"ONOCR", ONOCR, 0}, {"ONLRET", ONLRET, ONLCR},
        {"OLCUC", OLCUC, 0}, {"tabs", XTABS, 0}, {"ONOCR ONLRET", ONOCR | ONLRET, ONLCR}, {"OCRNL ONLRET", OCRNL | ONLRET, 0},
    };
    static const char *texts[] = {"plain", "a\nb\n", "\ra\rb\r", "a\tb\tc", "ab\b\tc", "\n\r\n", "x\r\ty", "\x01\x02\t|"};
    for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++)
        for (size_t t = 0; t < sizeof texts / sizeof *texts; t++) {
            open_pair();
            modes(0, 0, kinds[k].on, kinds[k].off, 0, 0);
            if (write(slave, texts[t], strlen(texts[t])) < 0 || write(slave, "$", 1) < 0)
                perror("write");
            show(CASE("output, %s, %zu", kinds[k].name, t), "%s", up_to('$'));
            close_pair();
        }
}

static long elapsed(const struct timespec *since) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (now.tv_sec - since->tv_sec) * 10 + (now.tv_nsec - since->tv_nsec) / 100000000;
}

static void raw_reads(void) {
    static const struct { int min, time; const char *keys; int size; } cases[] = {
        {1, 0, "abc", 10}, {0, 0, "", 10}, {0, 0, "ab", 10}, {2, 0, "abc", 10}, {3, 0, "abc", 2}, {0, 1, "", 10}, {0, 1, "a", 10},
        {3, 1, "ab", 10}, {1, 1, "ab", 10}, {5, 1, "a", 1},
    };
    char b[16];
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        open_pair();
        struct termios t = fresh;
        cfmakeraw(&t);
        t.c_cc[VMIN] = cases[i].min;
        t.c_cc[VTIME] = cases[i].time;
        tcsetattr(slave, TCSANOW, &t);
        type(cases[i].keys, strlen(cases[i].keys));
        usleep(20000);
        struct timespec start;
        clock_gettime(CLOCK_MONOTONIC, &start);
        ssize_t n = read(slave, b, cases[i].size);
        show(CASE("raw read, MIN %d TIME %d, %s", cases[i].min, cases[i].time, cases[i].keys), "%zd %s", n, shown(b, n));
        CHECK(CASE("raw read took its time, MIN %d TIME %d, %s", cases[i].min, cases[i].time, cases[i].keys), elapsed(&start) < 8);
        struct pollfd p = {.fd = slave, .events = POLLIN};
        show(CASE("readiness then, MIN %d TIME %d, %s", cases[i].min, cases[i].time, cases[i].keys), "%d", poll(&p, 1, 0));
        fcntl(slave, F_SETFL, O_NONBLOCK);
        tcflush(slave, TCIFLUSH);
        RESULT(CASE("without blocking, MIN %d TIME %d, %s", cases[i].min, cases[i].time, cases[i].keys), read(slave, b, 10));
        close_pair();
    }
}

static void control_calls(void) {
    open_pair();
    show("input modes", "%o", fresh.c_iflag);
    show("output modes", "%o", fresh.c_oflag);
    show("control modes", "%o", fresh.c_cflag);
    show("local modes", "%o", fresh.c_lflag);
    for (int i = 0; i < 17; i++)
        show(CASE("control character %d", i), "%d", fresh.c_cc[i]);
    struct termios t;
    memset(&t, 0, sizeof t); // its padding is compared below
    RESULT("modes through the master", tcgetattr(master, &t));
    CHECK("they are the slave's", memcmp(&t, &fresh, sizeof t) == 0);
    t.c_cflag = (t.c_cflag & ~CSIZE) | CS5 | PARENB | HUPCL;
    RESULT("five bits", tcsetattr(slave, TCSANOW, &t));
    tcgetattr(slave, &t);
    show("control modes that hold", "%o", t.c_cflag);
    t = fresh;
    cfsetspeed(&t, B9600);
    RESULT("speed", tcsetattr(slave, TCSANOW, &t));
    tcgetattr(slave, &t);
    CHECK("speed holds", cfgetospeed(&t) == B9600 && cfgetispeed(&t) == B9600);
    struct winsize w;
    RESULT("size", ioctl(slave, TIOCGWINSZ, &w));
    show("size at first", "%d %d", w.ws_row, w.ws_col);
    w = (struct winsize){33, 101, 5, 6};
    RESULT("set the size through the master", ioctl(master, TIOCSWINSZ, &w));
    memset(&w, 0, sizeof w);
    ioctl(slave, TIOCGWINSZ, &w);
    show("size then", "%d %d %d %d", w.ws_row, w.ws_col, w.ws_xpixel, w.ws_ypixel);
    CHECK("the master is a terminal", isatty(master));
    CHECK("the slave is a terminal", isatty(slave));
    char name[64], path[64];
    unsigned n;
    RESULT("number", ioctl(master, TIOCGPTN, &n));
    RESULT("number of a slave", ioctl(slave, TIOCGPTN, &n));
    snprintf(path, sizeof path, "/dev/pts/%u", n);
    CHECK("ptsname", strcmp(ptsname(master), path) == 0);
    CHECK("ttyname", ttyname_r(slave, name, sizeof name) == 0 && strcmp(name, path) == 0);
    RESULT("ptsname of a slave", ptsname_r(slave, name, sizeof name) == 0 ? 0 : -1);
    struct stat a, b;
    CHECK("stat by name and by descriptor", stat(path, &a) == 0 && fstat(slave, &b) == 0 && a.st_ino == b.st_ino && a.st_rdev == b.st_rdev);
    show("mode", "%o", a.st_mode & ~060);
    show("major", "%d", major(a.st_rdev));
    CHECK("minor", minor(a.st_rdev) == n);
    CHECK("owner", a.st_uid == getuid());
    RESULT("seek", lseek(slave, 0, SEEK_SET));
    RESULT("pread", pread(slave, name, 1, 0));
    int x = -1;
    RESULT("TIOCGETD", ioctl(slave, TIOCGETD, &x));
    show("line discipline", "%d", x);
    RESULT("TIOCOUTQ", ioctl(slave, TIOCOUTQ, &x));
    show("output that waits", "%d", x);
    RESULT("TIOCGPTLCK", ioctl(master, TIOCGPTLCK, &x));
    show("not locked", "%d", x);
    x = 1;
    RESULT("lock", ioctl(master, TIOCSPTLCK, &x));
    RESULT("open a locked slave", open(path, O_RDWR | O_NOCTTY));
    x = 0;
    RESULT("unlock", ioctl(master, TIOCSPTLCK, &x));
    int peer = -1;
    WORKS("TIOCGPTPEER", peer = ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY));
    CHECK("the peer is the slave", fstat(peer, &b) == 0 && a.st_ino == b.st_ino);
    close(peer);
    RESULT("TIOCGPTPEER of a slave", ioctl(slave, TIOCGPTPEER, O_RDWR));
    RESULT("TIOCEXCL", ioctl(slave, TIOCEXCL));
    RESULT("TIOCGEXCL", ioctl(slave, TIOCGEXCL, &x));
    show("exclusive", "%d", x);
    RESULT("TIOCNXCL", ioctl(slave, TIOCNXCL));
    RESULT("tcdrain", tcdrain(slave));
    RESULT("tcsendbreak", tcsendbreak(slave, 0));
    RESULT("tcflow with a wrong action", tcflow(slave, 9));
    RESULT("tcflush with a wrong queue", tcflush(slave, 9));
    RESULT("an unknown request", ioctl(slave, 0x54ff, &x));
    RESULT("an unknown request on the master", ioctl(master, 0x54ff, &x));
    RESULT("TCGETS to nowhere", ioctl(slave, TCGETS, 8L));
    RESULT("TCSETS from nowhere", ioctl(slave, TCSETS, 8L));
    RESULT("TIOCGWINSZ to nowhere", ioctl(slave, TIOCGWINSZ, 8L));
    RESULT("tcgetpgrp without a session", tcgetpgrp(slave));
    RESULT("tcgetsid without a session", tcgetsid(slave));
    RESULT("tcgetpgrp through the master", tcgetpgrp(master));
    RESULT("TIOCNOTTY of another's", ioctl(slave, TIOCNOTTY));
    RESULT("tcsetpgrp of another's", tcsetpgrp(slave, getpgrp()));
    int pipes[2];
    if (pipe(pipes) == 0) {
        RESULT("modes of a pipe", tcgetattr(pipes[0], &t));
        RESULT("size of a pipe", ioctl(pipes[0], TIOCGWINSZ, &w));
    }
    // Flow control.
    RESULT("tcflow off", tcflow(slave, TCOOFF));
    fcntl(slave, F_SETFL, O_NONBLOCK);
    RESULT("write while stopped", write(slave, "x", 1));
    RESULT("tcflow on", tcflow(slave, TCOON));
    RESULT("write while running", write(slave, "x$", 2));
    show("what came", "%s", up_to('$'));
    tcflow(slave, TCIOFF);
    tcflow(slave, TCION);
    usleep(10000);
    show("STOP and START", "%s", take(master));
    close_pair();
}

static void packets(void) {
    open_pair();
    int on = 1;
    char b[64];
    RESULT("TIOCPKT", ioctl(master, TIOCPKT, &on));
    on = 0;
    RESULT("TIOCGPKT", ioctl(master, TIOCGPKT, &on));
    show("packet mode", "%d", on);
    RESULT("TIOCPKT of a slave", ioctl(slave, TIOCPKT, &on));
    if (write(slave, "data", 4) != 4)
        perror("write");
    show("data", "%s", take(master));
    tcflush(slave, TCIFLUSH);
    show("flushed input", "%s", take(master));
    tcflush(slave, TCOFLUSH);
    show("flushed output", "%s", take(master));
    tcflow(slave, TCOOFF);
    struct pollfd p = {.fd = master, .events = POLLIN | POLLPRI};
    int polled = poll(&p, 1, 1000);
    show("a state is urgent", "%d %x", polled, p.revents);
    show("stopped", "%s", take(master));
    tcflow(slave, TCOON);
    show("started", "%s", take(master));
    struct termios t = fresh;
    t.c_iflag &= ~IXON;
    tcsetattr(slave, TCSANOW, &t);
    show("no flow control", "%s", take(master));
    tcsetattr(slave, TCSANOW, &fresh);
    show("flow control", "%s", take(master));
    if (write(slave, "abc", 3) != 3)
        perror("write");
    ready(master, 2000);
    RESULT("a small read", read(master, b, 2));
    show("its bytes", "%s", shown(b, 2));
    show("the rest", "%s", take(master));
    close_pair();
}

static const char *events(int fd) {
    static char text[4][16];
    static int next;
    struct pollfd p = {.fd = fd, .events = POLLIN | POLLOUT | POLLPRI | POLLRDNORM | POLLWRNORM};
    poll(&p, 1, 0);
    sprintf(text[next % 4], "%x", p.revents);
    return text[next++ % 4];
}

static void hangups(void) {
    char b[16];
    int n;
    open_pair();
    show("events of a fresh master", "%s", events(master));
    show("events of a fresh slave", "%s", events(slave));
    type("x", 1);
    up_to('x');
    show("events of a slave with part of a line", "%s", events(slave));
    type("\n", 1);
    up_to('\n');
    show("events of a slave with a line", "%s", events(slave));
    if (write(slave, "bye", 3) != 3)
        perror("write");
    ready(master, 2000);
    show("events of a master with data", "%s", events(master));
    close(slave);
    usleep(10000);
    show("events of a master after the last close", "%s", events(master));
    show("what was written before", "%s", take(master));
    RESULT("read then", read(master, b, 1));
    show("events then", "%s", events(master));
    RESULT("write then", write(master, "x", 1));
    usleep(10000);
    RESULT("modes then", ioctl(master, TIOCGWINSZ, &(struct winsize){0}));
    WORKS("open it again", slave = open(ptsname(master), O_RDWR | O_NOCTTY));
    show("events of the master then", "%s", events(master));
    fcntl(master, F_SETFL, O_NONBLOCK);
    while (ready(master, 20) && read(master, b, sizeof b) > 0)
        ;
    RESULT("read of nothing", read(master, b, 1));
    char path[32];
    snprintf(path, sizeof path, "%s", ptsname(master));
    close(master);
    show("events of a slave without master", "%s", events(slave));
    RESULT("read without master", read(slave, b, 1));
    RESULT("write without master", write(slave, b, 1));
    RESULT("TCGETS without master", ioctl(slave, TCGETS, &fresh));
    RESULT("TIOCGWINSZ without master", ioctl(slave, TIOCGWINSZ, b));
    RESULT("FIONREAD without master", ioctl(slave, FIONREAD, &n));
    RESULT("TIOCSPGRP without master", ioctl(slave, TIOCSPGRP, &n));
    RESULT("open without master", open(path, O_RDWR | O_NOCTTY));
    RESULT("stat without master", access(path, F_OK));
    close(slave);
    // Nothing has opened the slave yet.
    master = open("/dev/ptmx", O_RDWR | O_NOCTTY | O_NONBLOCK);
    RESULT("read before the first slave", read(master, b, 1));
    show("events before the first slave", "%s", events(master));
    RESULT("open before unlocking", open(ptsname(master), O_RDWR | O_NOCTTY));
    RESULT("grantpt", grantpt(master));
    RESULT("unlockpt", unlockpt(master));
    WORKS("open after unlocking", slave = open(ptsname(master), O_RDWR | O_NOCTTY));
    close_pair();
}

static volatile sig_atomic_t got[65];
static void note(int signal) { got[signal]++; }
static void catch(int signal, int flags) {
    struct sigaction a = {.sa_handler = note, .sa_flags = flags};
    sigaction(signal, &a, NULL);
}
static int wait_for(int signal) {
    for (int i = 0; i < 200 && !got[signal]; i++)
        usleep(10000);
    return got[signal];
}

// The terminal and its foreground group as /proc/self/stat has them, which ps(1) shows.
static void in_proc(const char *when, int has) {
    char b[1024] = "";
    int fd = open("/proc/self/stat", O_RDONLY), terminal = -2, foreground = -2;
    ssize_t n = read(fd, b, sizeof b - 1);
    close(fd);
    char *rest = n > 0 ? strrchr(b, ')') : NULL;
    if (rest)
        sscanf(rest, ") %*c %*d %*d %*d %d %d", &terminal, &foreground);
    struct stat s;
    fstat(slave, &s);
    CHECK(CASE("tty_nr %s", when), terminal == (has ? (int)s.st_rdev : 0));
    CHECK(CASE("tpgid %s", when), foreground == (has ? getpid() : -1));
}

// What a session leader sees; it is a child, so its lines come by a pipe in the right order: the parent waits for it.
static void leader(void) {
    int fd, n;
    char b[64];
    RESULT("/dev/tty without a terminal", open("/dev/tty", O_RDWR));
    in_proc("without a terminal", 0);
    RESULT("TIOCSCTTY", ioctl(slave, TIOCSCTTY, 0));
    RESULT("TIOCSCTTY again", ioctl(slave, TIOCSCTTY, 0));
    in_proc("of a leader", 1);
    CHECK("tcgetsid", tcgetsid(slave) == getpid());
    CHECK("tcgetpgrp", tcgetpgrp(slave) == getpid());
    CHECK("tcgetpgrp through the master", tcgetpgrp(master) == getpid());
    CHECK("tcgetsid through the master", tcgetsid(master) == getpid());
    WORKS("/dev/tty", fd = open("/dev/tty", O_RDWR));
    RESULT("write to /dev/tty", write(fd, "hello$", 6));
    show("it came", "%s", up_to('$'));
    close(fd);
    RESULT("tcsetpgrp to no group", tcsetpgrp(slave, 999999));
    RESULT("tcsetpgrp to a negative group", tcsetpgrp(slave, -5));
    RESULT("tcsetpgrp to the own group", tcsetpgrp(slave, getpid()));
    static const struct { const char *name; char key; int signal; } keys[] = {{"interrupt", 3, SIGINT}, {"quit", 28, SIGQUIT}, {"suspend", 26, SIGTSTP}};
    for (int i = 0; i < 3; i++) {
        catch(keys[i].signal, SA_RESTART);
        type("ab", 2);
        type(&keys[i].key, 1);
        show(CASE("signal of %s", keys[i].name), "%d", wait_for(keys[i].signal));
        usleep(10000);
        ioctl(slave, FIONREAD, &n);
        type("z\n", 2);
        show(CASE("line after %s", keys[i].name), "%s", take(slave));
        tcflush(slave, TCIOFLUSH);
        while (ready(master, 20))
            if (read(master, b, sizeof b) < 0)
                break;
    }
    modes(0, 0, 0, 0, NOFLSH, 0);
    got[SIGINT] = 0;
    type("ab\x03" "c\n", 5);
    show("signal with NOFLSH", "%d", wait_for(SIGINT));
    show("line with NOFLSH", "%s", take(slave));
    tcsetattr(slave, TCSANOW, &fresh);
    catch(SIGWINCH, SA_RESTART);
    struct winsize w = {10, 20, 0, 0};
    ioctl(master, TIOCSWINSZ, &w);
    show("SIGWINCH", "%d", wait_for(SIGWINCH));
    got[SIGWINCH] = 0;
    ioctl(master, TIOCSWINSZ, &w);
    usleep(20000);
    show("SIGWINCH for the same size", "%d", got[SIGWINCH]);

    // A background child.
    int status;
    pid_t child = fork();
    if (child == 0) {
        setpgid(0, 0);
        if (read(slave, b, sizeof b) != 3)
            _exit(9);
        _exit(0);
    }
    setpgid(child, child);
    CHECK("a background reader stops", waitpid(child, &status, WUNTRACED) == child && WIFSTOPPED(status));
    show("its signal", "%d", WSTOPSIG(status));
    RESULT("foreground", tcsetpgrp(slave, child));
    CHECK("tcgetpgrp then", tcgetpgrp(slave) == child);
    kill(-child, SIGCONT);
    type("ab\n", 3);
    CHECK("it reads then", waitpid(child, &status, 0) == child);
    show("its status", "%x", status);
    signal(SIGTTOU, SIG_IGN);
    RESULT("foreground again", tcsetpgrp(slave, getpid()));
    signal(SIGTTOU, SIG_DFL);
    static const struct { const char *name; int what; } acts[] = {{"write", 0}, {"write with TOSTOP", 1}, {"tcsetattr", 2}, {"tcflush", 3}, {"tcsetpgrp", 4}};
    for (int i = 0; i < 5; i++) {
        modes(0, 0, 0, 0, acts[i].what == 1 ? TOSTOP : 0, 0);
        child = fork();
        if (child == 0) {
            setpgid(0, 0);
            long r = 0;
            switch (acts[i].what) {
            case 0: case 1: r = write(slave, "!", 1); break;
            case 2: r = tcsetattr(slave, TCSANOW, &fresh); break;
            case 3: r = tcflush(slave, TCIFLUSH); break;
            case 4: r = tcsetpgrp(slave, getpgrp()); break;
            }
            _exit(r < 0 ? errno : 0);
        }
        setpgid(child, child);
        CHECK(CASE("background %s", acts[i].name), waitpid(child, &status, WUNTRACED) == child);
        show(CASE("background %s: what happens", acts[i].name), "%s %d", WIFSTOPPED(status) ? "stops" : "ends", WIFSTOPPED(status) ? WSTOPSIG(status) : WEXITSTATUS(status));
        if (WIFSTOPPED(status)) {
            kill(child, SIGKILL);
            waitpid(child, &status, 0);
        }
        child = fork();
        if (child == 0) {
            setpgid(0, 0);
            signal(SIGTTOU, SIG_IGN);
            signal(SIGTTIN, SIG_IGN);
            long r = 0;
            switch (acts[i].what) {
            case 0: r = read(slave, b, 1); break;
            case 1: r = write(slave, "!", 1); break;
            case 2: r = tcsetattr(slave, TCSANOW, &fresh); break;
            case 3: r = tcflush(slave, TCIFLUSH); break;
            case 4: r = 0; break;
            }
            _exit(r < 0 ? errno : 0);
        }
        setpgid(child, child);
        waitpid(child, &status, 0);
        show(CASE("background %s (a read for the first) with signals ignored", acts[i].name), "%d", WEXITSTATUS(status));
    }
    tcsetattr(slave, TCSANOW, &fresh);
    // A child in a session of its own has no terminal.
    child = fork();
    if (child == 0) {
        setsid();
        int r = open("/dev/tty", O_RDWR) < 0 ? errno : 0;
        int s = ioctl(slave, TIOCSCTTY, 0) < 0 ? errno : 0;
        int t = tcgetpgrp(slave) < 0 ? errno : 0;
        _exit(r == ENXIO && s == EPERM && t == ENOTTY ? 0 : 1);
    }
    waitpid(child, &status, 0);
    show("a new session", "%x", status);
    catch(SIGHUP, 0);
    catch(SIGCONT, 0);
    got[SIGCONT] = 0;
    RESULT("TIOCNOTTY", ioctl(slave, TIOCNOTTY));
    show("SIGHUP of giving up", "%d", wait_for(SIGHUP));
    show("SIGCONT of giving up", "%d", wait_for(SIGCONT));
    RESULT("/dev/tty then", open("/dev/tty", O_RDWR));
    RESULT("open takes a terminal again", (fd = open(ptsname(master), O_RDWR)) < 0 ? -1 : 0);
    CHECK("it is the controlling one", tcgetsid(fd) == getpid());
    close(fd);
    got[SIGHUP] = got[SIGCONT] = 0;
    close(master);
    show("SIGHUP of a closed master", "%d", wait_for(SIGHUP));
    show("SIGCONT of a closed master", "%d", wait_for(SIGCONT));
    RESULT("/dev/tty without a master", open("/dev/tty", O_RDWR));
}

static void sessions(void) {
    int status;
    open_pair();
    pid_t child = fork();
    if (child == 0) {
        RESULT("setsid", setsid() == getpid() ? 0 : -1);
        RESULT("setsid again", setsid());
        leader();
        fflush(stdout);
        _exit(0);
    }
    close_pair();
    waitpid(child, &status, 0);
    show("the leader's status", "%x", status);
    // The foreground group hears of the leader's end.
    int p[2];
    open_pair();
    if (pipe(p) != 0)
        return;
    child = fork();
    if (child == 0) {
        setsid();
        ioctl(slave, TIOCSCTTY, 0);
        pid_t job = fork();
        if (job == 0) {
            catch(SIGHUP, 0);
            setpgid(0, 0);
            signal(SIGTTOU, SIG_IGN);
            tcsetpgrp(slave, getpgrp());
            if (write(p[1], "r", 1) != 1)
                _exit(1);
            wait_for(SIGHUP);
            char c = got[SIGHUP] ? 'h' : 'n';
            if (write(p[1], &c, 1) != 1)
                _exit(1);
            c = tcgetpgrp(slave) < 0 && errno == ENOTTY ? 'l' : 'k';
            if (write(p[1], &c, 1) != 1)
                _exit(1);
            _exit(0);
        }
        char c;
        if (read(p[0], &c, 1) != 1)
            _exit(1);
        _exit(0);
    }
    close(p[1]);
    waitpid(child, &status, 0);
    show("a session leader with a foreground job ends", "%x", status);
    char b[3] = "";
    ssize_t n = 0;
    while (n < 2) {
        ssize_t m = read(p[0], b + n, 2 - n);
        if (m <= 0)
            break;
        n += m;
    }
    show("what the job saw", "%s", b);
    close(p[0]);
    close_pair();
}

int main(void) {
    setvbuf(stdout, NULL, _IONBF, 0);
    editing();
    ends_of_lines();
    input_modes();
    output_modes();
    raw_reads();
    control_calls();
    packets();
    hangups();
    sessions();
    return 0;
}

// AF_UNIX: names, connections, messages, descriptors and credentials that travel, options, readiness.
#include "net.h"
#include <sys/mman.h>
#include <sys/sendfile.h>

static address_t un(const char *name) {
    address_t a = {.un = {.sun_family = AF_UNIX}};
    strcpy(a.un.sun_path, name);
    return a;
}

// An abstract name of this process: "\0conformance-PID-name".
static address_t abstract(const char *name, socklen_t *n) {
    address_t a = {.un = {.sun_family = AF_UNIX}};
    int len = snprintf(a.un.sun_path + 1, 100, "conformance-%d-%s", getpid(), name);
    *n = offsetof(struct sockaddr_un, sun_path) + 1 + len;
    return a;
}

static const struct {
    int type;
    const char *name;
} types[] = {{SOCK_STREAM, "stream"}, {SOCK_DGRAM, "dgram"}, {SOCK_SEQPACKET, "seqpacket"}};

static int *volatile bad_address = (int *)8;

static void creation(void) {
    static const struct {
        int family, type, protocol;
    } cases[] = {{AF_UNIX, SOCK_STREAM, 0},  {AF_UNIX, SOCK_STREAM, 1},    {AF_UNIX, SOCK_STREAM, 2}, {AF_UNIX, SOCK_DGRAM, 0},
                 {AF_UNIX, SOCK_RAW, 0},     {AF_UNIX, SOCK_SEQPACKET, 0}, {AF_UNIX, SOCK_RDM, 0},    {AF_UNIX, 0, 0},
                 {AF_UNIX, 11, 0},           {AF_UNIX, 1 | 0x10000, 0},    {99, SOCK_STREAM, 0},      {-1, SOCK_STREAM, 0},
                 {AF_UNIX, SOCK_STREAM, -1}, {AF_UNSPEC, SOCK_STREAM, 0}};
    for (unsigned i = 0; i < sizeof cases / sizeof *cases; i++) {
        int fd = socket(cases[i].family, cases[i].type, cases[i].protocol);
        works_of(CASE("socket %d %x %d", cases[i].family, cases[i].type, cases[i].protocol), fd);
        if (fd >= 0)
            show(CASE("its type %d", i), "%d", option(fd, SOL_SOCKET, SO_TYPE));
        close(fd);
        int p[2] = {-1, -1};
        RESULT(CASE("socketpair %d %x %d", cases[i].family, cases[i].type, cases[i].protocol),
               socketpair(cases[i].family, cases[i].type, cases[i].protocol, p));
        close(p[0]);
        close(p[1]);
    }
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    show("flags of a new socket", "%d %d", fcntl(fd, F_GETFD), (fcntl(fd, F_GETFL) & O_NONBLOCK) != 0);
    RESULT("lseek", lseek(fd, 0, SEEK_SET));
    RESULT("pread", pread(fd, &fd, 1, 0));
    struct stat st;
    fstat(fd, &st);
    show("mode", "%o", st.st_mode);
    close(fd);
    RESULT("socketpair to a bad address", socketpair(AF_UNIX, SOCK_STREAM, 0, bad_address));
}

static void names(void) {
    address_t a, b;
    socklen_t n;
    for (int i = 0; i < 3; i++) {
        const char *t = types[i].name;
        int s = socket(AF_UNIX, types[i].type, 0), s2 = socket(AF_UNIX, types[i].type, 0);
        n = sizeof a;
        RESULT(CASE("%s: name before bind", t), getsockname(s, &a.any, &n));
        show(CASE("%s: its length", t), "%d family %d", n, a.any.sa_family);
        RESULT(CASE("%s: peer before connect", t), getpeername(s, &a.any, &n));
        RESULT(CASE("%s: bind", t), bind_to(s, un(t)));
        RESULT(CASE("%s: bind twice", t), bind_to(s, un("other")));
        RESULT(CASE("%s: bind the same name", t), bind_to(s2, un(t)));
        n = sizeof a;
        getsockname(s, &a.any, &n);
        show(CASE("%s: name after bind", t), "%d %s", n, a.un.sun_path);
        struct stat st;
        RESULT(CASE("%s: stat", t), stat(t, &st));
        show(CASE("%s: mode of the name", t), "%o", st.st_mode);
        RESULT(CASE("%s: open", t), open(t, O_RDWR));
        RESULT(CASE("%s: unlink", t), unlink(t));
        RESULT(CASE("%s: bind after unlink", t), bind_to(s2, un(t)));
        // A name too short to hold it is cut, and the whole length told.
        memset(&a, 'x', sizeof a);
        n = 4;
        RESULT(CASE("%s: name into 4 bytes", t), getsockname(s, &a.any, &n));
        show(CASE("%s: told", t), "%d %c%c%c", n, a.un.sun_path[0], a.un.sun_path[1], a.un.sun_path[2]);
        n = -1;
        RESULT(CASE("%s: name into -1 bytes", t), getsockname(s, &a.any, &n));
        close(s);
        close(s2);
        unlink(t);
    }
    static const struct {
        const char *what;
        int len;
        int family;
    } bad[] = {{"length 0", 0, AF_UNIX},         {"length 1", 1, AF_UNIX},    {"length 111", 111, AF_UNIX},
               {"length 200", 200, AF_UNIX},     {"AF_INET", 20, AF_INET},    {"AF_UNSPEC", 20, AF_UNSPEC}};
    char big[256] = {0};
    for (unsigned i = 0; i < sizeof bad / sizeof *bad; i++) {
        int s = socket(AF_UNIX, SOCK_STREAM, 0);
        memset(big, 'z', sizeof big);
        *(sa_family_t *)big = bad[i].family;
        RESULT(CASE("bind: %s", bad[i].what), bind(s, (void *)big, bad[i].len));
        RESULT(CASE("connect: %s", bad[i].what), connect(s, (void *)big, bad[i].len));
        close(s);
        int d = socket(AF_UNIX, SOCK_DGRAM, 0);
        RESULT(CASE("dgram connect: %s", bad[i].what), connect(d, (void *)big, bad[i].len));
        RESULT(CASE("sendto: %s", bad[i].what), sendto(d, "x", 1, 0, (void *)big, bad[i].len));
        close(d);
    }
    // A path of the whole length has no NUL.
    int s = socket(AF_UNIX, SOCK_STREAM, 0);
    memset(&a, 0, sizeof a);
    a.un.sun_family = AF_UNIX;
    memset(a.un.sun_path, 'l', 108);
    RESULT("bind 108 bytes", bind(s, &a.any, 110));
    n = 128;
    char room[128];
    getsockname(s, (void *)room, &n);
    show("its name's length", "%d", n);
    close(s);
    unlink("llllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllllll");
    s = socket(AF_UNIX, SOCK_STREAM, 0);
    RESULT("bind in no directory", bind_to(s, un("none/x")));
    RESULT("bind to a directory", bind_to(s, un(".")));
    RESULT("bind to a name with a slash", bind_to(s, un("x/")));
    RESULT("connect to nothing", connect_to(s, un("nothing")));
    close(open("file", O_CREAT | O_WRONLY, 0644));
    RESULT("connect to a file", connect_to(s, un("file")));
    RESULT("bind to a file", bind_to(s, un("file")));
    close(s);
    // Abstract names and automatic ones.
    s = socket(AF_UNIX, SOCK_DGRAM, 0);
    a = abstract("x", &n);
    RESULT("bind an abstract name", bind(s, &a.any, n));
    int s2 = socket(AF_UNIX, SOCK_DGRAM, 0);
    RESULT("bind it again", bind(s2, &a.any, n));
    RESULT("a longer one is another", bind(s2, &a.any, n + 1));
    b = name_of(s);
    show("abstract name", "%d", memcmp(&a, &b, n));
    close(s2);
    s2 = socket(AF_UNIX, SOCK_STREAM, 0);
    RESULT("connect to it with another type", connect(s2, &a.any, n));
    close(s);
    RESULT("connect when it is gone", connect(s2, &a.any, n));
    sa_family_t family = AF_UNIX;
    RESULT("automatic name", bind(s2, (void *)&family, 2));
    n = sizeof a;
    getsockname(s2, &a.any, &n);
    show("automatic name's length", "%d %d", n, a.un.sun_path[0]);
    RESULT("automatic name again", bind(s2, (void *)&family, 2));
    close(s2);
}

static void connections(void) {
    for (int i = 0; i < 3; i += 2) {
        const char *t = types[i].name;
        int l = socket(AF_UNIX, types[i].type, 0), c = socket(AF_UNIX, types[i].type, 0), x;
        char buffer[64];
        address_t a;
        RESULT(CASE("%s: listen without a name", t), listen(l, 1));
        bind_to(l, un("listener"));
        RESULT(CASE("%s: connect before listen", t), connect_to(c, un("listener")));
        RESULT(CASE("%s: accept before listen", t), accept(l, 0, 0));
        RESULT(CASE("%s: listen", t), listen(l, 0));
        RESULT(CASE("%s: SO_ACCEPTCONN", t), option(l, SOL_SOCKET, SO_ACCEPTCONN));
        EVENTS(CASE("%s: listener", t), l);
        EVENTS(CASE("%s: unconnected", t), c);
        RESULT(CASE("%s: send unconnected", t), send(c, "x", 1, MSG_NOSIGNAL));
        RESULT(CASE("%s: recv unconnected", t), recv(c, buffer, 1, MSG_DONTWAIT));
        RESULT(CASE("%s: shutdown unconnected", t), shutdown(c, SHUT_WR));
        close(c);
        c = socket(AF_UNIX, types[i].type, 0);
        RESULT(CASE("%s: connect", t), connect_to(c, un("listener")));
        nonblocking(c, 1);
        RESULT(CASE("%s: connect again, the listener is full", t), connect_to(c, un("listener")));
        nonblocking(c, 0);
        RESULT(CASE("%s: listen on a connected one", t), listen(c, 1));
        EVENTS(CASE("%s: listener with a connection", t), l);
        EVENTS(CASE("%s: connected, not accepted", t), c);
        int c2 = socket(AF_UNIX, types[i].type | SOCK_NONBLOCK, 0);
        RESULT(CASE("%s: second connect", t), connect_to(c2, un("listener")));
        int c3 = socket(AF_UNIX, types[i].type | SOCK_NONBLOCK, 0);
        RESULT(CASE("%s: third connect", t), connect_to(c3, un("listener")));
        RESULT(CASE("%s: send before accept", t), send(c, "early", 5, 0));
        socklen_t n = sizeof a;
        x = accept(l, &a.any, &n);
        works_of(CASE("%s: accept", t), x);
        show(CASE("%s: accepted from", t), "%d %d", n, a.any.sa_family);
        n = sizeof a;
        getpeername(c, &a.any, &n);
        show(CASE("%s: peer of the client", t), "%d %s", n, a.un.sun_path);
        n = sizeof a;
        getsockname(x, &a.any, &n);
        show(CASE("%s: name of the accepted", t), "%d %s", n, a.un.sun_path);
        RESULT(CASE("%s: bind a connected one", t), bind_to(c, un("late")));
        n = sizeof a;
        getpeername(x, &a.any, &n);
        show(CASE("%s: peer sees the late name", t), "%d", n);
        unlink("late");
        RESULT(CASE("%s: receive what came early", t), recv(x, buffer, 64, 0));
        RESULT(CASE("%s: sendto with an address", t), sendto(c, "x", 1, MSG_NOSIGNAL, (void *)&a, 8));
        recv(x, buffer, 64, MSG_DONTWAIT);
        RESULT(CASE("%s: connect again", t), connect_to(c, un("listener")));
        RESULT(CASE("%s: empty", t), recv(x, buffer, 64, MSG_DONTWAIT));
        RESULT(CASE("%s: connect AF_UNSPEC", t), connect(c, &(struct sockaddr){0}, sizeof(struct sockaddr)));
        close(l);
        EVENTS(CASE("%s: not accepted, listener gone", t), c2);
        RESULT(CASE("%s: recv there", t), recv(c2, buffer, 64, 0));
        RESULT(CASE("%s: recv again", t), recv(c2, buffer, 64, 0));
        RESULT(CASE("%s: send there", t), send(c2, "x", 1, MSG_NOSIGNAL));
        RESULT(CASE("%s: accepted one lives", t), send(x, "alive", 5, 0));
        RESULT(CASE("%s: and hears", t), recv(c, buffer, 64, 0));
        RESULT(CASE("%s: connect with no listener", t), connect_to(c3, un("listener")));
        unlink("listener");
        close(c);
        close(c2);
        close(c3);
        close(x);
    }
    int d = socket(AF_UNIX, SOCK_DGRAM, 0);
    bind_to(d, un("d"));
    RESULT("dgram: listen", listen(d, 1));
    RESULT("dgram: accept", accept(d, 0, 0));
    close(d);
    unlink("d");
    RESULT("accept on a pipe", accept(0, 0, 0));
    RESULT("listen on -1", listen(-1, 0));
}

static void shutdowns(void) {
    char buffer[64];
    static const char *hows[] = {"RD", "WR", "RDWR"};
    for (int i = 0; i < 3; i++)
        for (int how = 0; how < 3; how++) {
            int p[2];
            const char *t = types[i].name;
            socketpair(AF_UNIX, types[i].type, 0, p);
            send(p[1], "left", 4, 0);
            RESULT(CASE("%s: shutdown %s", t, hows[how]), shutdown(p[0], how));
            EVENTS(CASE("%s: %s: own events", t, hows[how]), p[0]);
            EVENTS(CASE("%s: %s: peer's events", t, hows[how]), p[1]);
            RESULT(CASE("%s: %s: send", t, hows[how]), send(p[0], "x", 1, MSG_NOSIGNAL));
            RESULT(CASE("%s: %s: peer sends", t, hows[how]), send(p[1], "y", 1, MSG_NOSIGNAL));
            RESULT(CASE("%s: %s: recv", t, hows[how]), recv(p[0], buffer, 64, MSG_DONTWAIT));
            RESULT(CASE("%s: %s: recv again", t, hows[how]), recv(p[0], buffer, 64, MSG_DONTWAIT));
            RESULT(CASE("%s: %s: peer receives", t, hows[how]), recv(p[1], buffer, 64, MSG_DONTWAIT));
            RESULT(CASE("%s: %s: peer again", t, hows[how]), recv(p[1], buffer, 64, MSG_DONTWAIT));
            close(p[0]);
            close(p[1]);
        }
    int p[2];
    socketpair(AF_UNIX, SOCK_STREAM, 0, p);
    RESULT("shutdown 3", shutdown(p[0], 3));
    RESULT("shutdown -1", shutdown(p[0], -1));
    close(p[0]);
    close(p[1]);
    for (int i = 0; i < 3; i++)
        for (int unread = 0; unread < 2; unread++) {
            const char *t = types[i].name;
            socketpair(AF_UNIX, types[i].type, 0, p);
            send(p[0], "to read", 7, 0);
            if (unread)
                send(p[1], "unread", 6, 0);
            close(p[0]);
            EVENTS(CASE("%s: peer closed, unread %d", t, unread), p[1]);
            show(CASE("%s: SO_ERROR, unread %d", t, unread), "%d", option(p[1], SOL_SOCKET, SO_ERROR));
            RESULT(CASE("%s: recv, unread %d", t, unread), recv(p[1], buffer, 64, MSG_DONTWAIT));
            RESULT(CASE("%s: recv again, unread %d", t, unread), recv(p[1], buffer, 64, MSG_DONTWAIT));
            RESULT(CASE("%s: send, unread %d", t, unread), send(p[1], "x", 1, MSG_NOSIGNAL));
            RESULT(CASE("%s: send again, unread %d", t, unread), send(p[1], "x", 1, MSG_NOSIGNAL));
            EVENTS(CASE("%s: in the end, unread %d", t, unread), p[1]);
            close(p[1]);
        }
}

static void messages(void) {
    char buffer[256], other[256];
    int p[2];
    for (int i = 0; i < 3; i++) {
        const char *t = types[i].name;
        socketpair(AF_UNIX, types[i].type, 0, p);
        send(p[0], "hello", 5, 0);
        send(p[0], "world", 5, 0);
        int n = -1;
        RESULT(CASE("%s: FIONREAD", t), ioctl(p[1], FIONREAD, &n));
        show(CASE("%s: bytes", t), "%d", n);
        RESULT(CASE("%s: peek", t), recv(p[1], buffer, 3, MSG_PEEK));
        RESULT(CASE("%s: peek all", t), recv(p[1], buffer, 256, MSG_PEEK));
        RESULT(CASE("%s: MSG_TRUNC", t), recv(p[1], buffer, 3, MSG_TRUNC | MSG_PEEK));
        struct iovec v[2] = {{buffer, 2}, {other, 1}};
        struct msghdr m = {.msg_iov = v, .msg_iovlen = 2};
        RESULT(CASE("%s: recvmsg into 3", t), recvmsg(p[1], &m, 0));
        show(CASE("%s: flags", t), "%x %d", m.msg_flags, m.msg_namelen);
        RESULT(CASE("%s: the rest", t), recv(p[1], buffer, 256, 0));
        RESULT(CASE("%s: recv 0 bytes", t), recv(p[1], buffer, 0, MSG_DONTWAIT));
        RESULT(CASE("%s: send 0 bytes", t), send(p[0], "", 0, 0));
        RESULT(CASE("%s: recv that", t), recv(p[1], buffer, 256, MSG_DONTWAIT));
        RESULT(CASE("%s: write 0 bytes", t), write(p[0], "", 0));
        RESULT(CASE("%s: read that", t), recv(p[1], buffer, 256, MSG_DONTWAIT));
        RESULT(CASE("%s: send from a bad address", t), send(p[0], (void *)8, 5, 0));
        send(p[0], "good", 4, 0);
        RESULT(CASE("%s: recv to a bad address", t), recv(p[1], (void *)8, 5, MSG_DONTWAIT));
        RESULT(CASE("%s: recv after that", t), recv(p[1], buffer, 5, MSG_DONTWAIT));
        RESULT(CASE("%s: MSG_WAITALL, non-blocking", t), (send(p[0], "abc", 3, 0), recv(p[1], buffer, 9, MSG_WAITALL | MSG_DONTWAIT)));
        RESULT(CASE("%s: MSG_ERRQUEUE", t), recv(p[1], buffer, 9, MSG_ERRQUEUE | MSG_DONTWAIT));
        m.msg_iovlen = 1025;
        RESULT(CASE("%s: 1025 buffers", t), sendmsg(p[0], &m, 0));
        m.msg_iovlen = 0;
        RESULT(CASE("%s: no buffers", t), sendmsg(p[0], &m, 0));
        RESULT(CASE("%s: recvmsg at a bad address", t), recvmsg(p[1], (void *)8, 0));
        receive_timeout(p[1], 20);
        recv(p[1], buffer, 1, MSG_DONTWAIT);
        RESULT(CASE("%s: SO_RCVTIMEO", t), recv(p[1], buffer, 1, 0));
        close(p[0]);
        close(p[1]);
    }
    // Several messages at once.
    socketpair(AF_UNIX, SOCK_DGRAM, 0, p);
    struct iovec v[4];
    struct mmsghdr mm[4];
    memset(mm, 0, sizeof mm);
    for (int i = 0; i < 4; i++) {
        v[i] = (struct iovec){"message" + i, 7 - i};
        mm[i].msg_hdr.msg_iov = &v[i];
        mm[i].msg_hdr.msg_iovlen = 1;
    }
    RESULT("sendmmsg", sendmmsg(p[0], mm, 4, 0));
    show("lengths sent", "%d %d %d %d", mm[0].msg_len, mm[1].msg_len, mm[2].msg_len, mm[3].msg_len);
    for (int i = 0; i < 4; i++)
        v[i] = (struct iovec){buffer + i * 8, 5};
    RESULT("recvmmsg of 2", recvmmsg(p[1], mm, 2, 0, 0));
    show("lengths received", "%d %d, flags %x %x", mm[0].msg_len, mm[1].msg_len, mm[0].msg_hdr.msg_flags, mm[1].msg_hdr.msg_flags);
    RESULT("recvmmsg of 4, do not wait", recvmmsg(p[1], mm, 4, MSG_DONTWAIT, 0));
    RESULT("recvmmsg of nothing", recvmmsg(p[1], mm, 4, MSG_DONTWAIT, 0));
    struct timespec ts = {0, 0};
    send(p[0], "a", 1, 0);
    RESULT("recvmmsg with a time-out", recvmmsg(p[1], mm, 4, 0, &ts));
    ts.tv_nsec = 1000000000;
    RESULT("recvmmsg with a bad time-out", recvmmsg(p[1], mm, 4, 0, &ts));
    send(p[0], "a", 1, 0);
    send(p[0], "a", 1, 0);
    RESULT("recvmmsg MSG_WAITFORONE", recvmmsg(p[1], mm, 4, MSG_WAITFORONE, 0));
    RESULT("sendmmsg of 0", sendmmsg(p[0], mm, 0, 0));
    close(p[0]);
    close(p[1]);
}

static void datagrams(void) {
    int a = socket(AF_UNIX, SOCK_DGRAM, 0), b = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0), c = socket(AF_UNIX, SOCK_DGRAM, 0);
    char buffer[300000];
    address_t from;
    bind_to(a, un("a"));
    RESULT("send without a destination", send(b, "x", 1, 0));
    RESULT("sendto", sendto(b, "x", 1, 0, (void *)&(struct sockaddr_un){AF_UNIX, "a"}, sizeof(struct sockaddr_un)));
    socklen_t n = sizeof from;
    RESULT("from nobody", recvfrom(a, buffer, 9, 0, &from.any, &n));
    show("length of no name", "%d", n);
    bind_to(b, un("b"));
    RESULT("connect", connect_to(b, un("a")));
    RESULT("send", send(b, "xy", 2, 0));
    n = sizeof from;
    RESULT("from somebody", recvfrom(a, buffer, 9, 0, &from.any, &n));
    show("name", "%d %s", n, from.un.sun_path);
    RESULT("sendto while connected", sendto(b, "x", 1, 0, (void *)&(struct sockaddr_un){AF_UNIX, "b"}, sizeof(struct sockaddr_un)));
    RESULT("to oneself", recv(b, buffer, 9, MSG_DONTWAIT));
    RESULT("connect the other way", connect_to(a, un("b")));
    RESULT("a third cannot send to a connected one", sendto(c, "x", 1, 0, (void *)&(struct sockaddr_un){AF_UNIX, "a"}, sizeof(struct sockaddr_un)));
    RESULT("nor connect", connect_to(c, un("a")));
    RESULT("dissolve", connect(a, &(struct sockaddr){AF_UNSPEC, ""}, sizeof(struct sockaddr)));
    RESULT("then it can", connect_to(c, un("a")));
    RESULT("peer after", getpeername(a, &from.any, &n));
    int sent = 0;
    while (send(b, "q", 1, MSG_DONTWAIT) == 1)
        sent++;
    show("messages before it is full", "%d %s", sent, strerrorname_np(errno));
    EVENTS("sender to a full one", b);
    recv(a, buffer, 9, 0);
    EVENTS("sender when there is room", b);
    RESULT("another sender", send(c, "z", 1, MSG_DONTWAIT));
    struct timeval tv = {0, 20000};
    setsockopt(c, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof tv);
    RESULT("SO_SNDTIMEO", send(c, "z", 1, 0));
    close(a);
    RESULT("send to a closed one", send(b, "x", 1, 0));
    RESULT("once more", send(b, "x", 1, 0));
    RESULT("sendto a name without a socket", sendto(b, "x", 1, 0, (void *)&(struct sockaddr_un){AF_UNIX, "a"}, sizeof(struct sockaddr_un)));
    set_option(b, SOL_SOCKET, SO_SNDBUF, 65536);
    show("SO_SNDBUF", "%d", option(b, SOL_SOCKET, SO_SNDBUF));
    int d = socket(AF_UNIX, SOCK_DGRAM, 0);
    bind_to(d, un("dd"));
    connect_to(b, un("dd"));
    RESULT("a message larger than the buffer", send(b, buffer, 200000, 0));
    RESULT("one that fits", send(b, buffer, 100000, 0));
    RESULT("received whole", recv(d, buffer, sizeof buffer, 0));
    close(b);
    close(c);
    close(d);
    unlink("a");
    unlink("b");
    unlink("dd");
}

static long receive_fds(int s, int *fds, int room, int flags, struct msghdr *m) {
    static char byte, control[CMSG_SPACE(sizeof(int) * 260)];
    static struct iovec v = {&byte, 1};
    *m = (struct msghdr){.msg_iov = &v, .msg_iovlen = 1, .msg_control = control, .msg_controllen = room};
    long n = recvmsg(s, m, flags);
    struct cmsghdr *c = CMSG_FIRSTHDR(m);
    if (n >= 0 && c && c->cmsg_type == SCM_RIGHTS) {
        int count = (c->cmsg_len - CMSG_LEN(0)) / 4;
        memcpy(fds, CMSG_DATA(c), count * 4);
        return count;
    }
    return n < 0 ? n : 0;
}

static void rights(void) {
    struct msghdr m;
    char buffer[16];
    int p[2], q[2], fds[300], got[300];
    for (int i = 0; i < 3; i++) {
        const char *t = types[i].name;
        socketpair(AF_UNIX, types[i].type, 0, p);
        if (pipe(q) != 0)
            return;
        fds[0] = q[0], fds[1] = q[1];
        RESULT(CASE("%s: send two", t), send_fds(p[0], fds, 2, 0));
        close(q[0]);
        close(q[1]);
        show(CASE("%s: received", t), "%ld", receive_fds(p[1], got, CMSG_SPACE(8), 0, &m));
        show(CASE("%s: flags", t), "%x %zu", m.msg_flags, m.msg_controllen);
        RESULT(CASE("%s: write to one", t), write(got[1], "pipe", 4));
        RESULT(CASE("%s: read from the other", t), read(got[0], buffer, 16));
        show(CASE("%s: close on exec", t), "%d", fcntl(got[0], F_GETFD));
        fds[0] = got[0], fds[1] = got[1];
        send_fds(p[0], fds, 2, 0);
        int two[2];
        show(CASE("%s: MSG_CMSG_CLOEXEC", t), "%ld", receive_fds(p[1], two, CMSG_SPACE(8), MSG_CMSG_CLOEXEC, &m));
        show(CASE("%s: close on exec now", t), "%d %x", fcntl(two[0], F_GETFD), m.msg_flags);
        close(two[0]);
        close(two[1]);
        static const int rooms[] = {0, 8, 16, 20, 24, 28};
        for (unsigned r = 0; r < 6; r++) {
            send_fds(p[0], fds, 2, 0);
            long n = receive_fds(p[1], two, rooms[r], 0, &m);
            show(CASE("%s: room of %d", t, rooms[r]), "%ld %x %zu", n, m.msg_flags, m.msg_controllen);
            for (int k = 0; k < n; k++)
                close(two[k]);
        }
        send_fds(p[0], fds, 1, 0);
        show(CASE("%s: peek", t), "%ld", receive_fds(p[1], two, CMSG_SPACE(8), MSG_PEEK, &m));
        close(two[0]);
        show(CASE("%s: and take", t), "%ld", receive_fds(p[1], two, CMSG_SPACE(8), 0, &m));
        close(two[0]);
        send_fds(p[0], fds, 1, 0);
        RESULT(CASE("%s: read drops them", t), read(p[1], buffer, 16));
        fds[1] = 999;
        RESULT(CASE("%s: a bad descriptor", t), send_fds(p[0], fds, 2, 0));
        int o = open("/", O_PATH);
        fds[1] = o;
        RESULT(CASE("%s: an O_PATH descriptor", t), send_fds(p[0], fds, 2, 0));
        close(o);
        for (int k = 0; k < 254; k++)
            fds[k] = got[0];
        RESULT(CASE("%s: 253 descriptors", t), send_fds(p[0], fds, 253, 0));
        long n = receive_fds(p[1], got, 0, 0, &m);
        show(CASE("%s: dropped", t), "%ld %x", n, m.msg_flags);
        RESULT(CASE("%s: 254 descriptors", t), send_fds(p[0], fds, 254, 0));
        fds[0] = p[1];
        RESULT(CASE("%s: the socket itself", t), send_fds(p[0], fds, 1, 0));
        close(p[0]);
        close(p[1]);
    }
    // Bytes with descriptors are not joined with those before and after them.
    socketpair(AF_UNIX, SOCK_STREAM, 0, p);
    send(p[0], "aa", 2, 0);
    send_fds(p[0], got, 1, 0);
    send(p[0], "bb", 2, 0);
    for (int i = 0; i < 4; i++)
        RESULT(CASE("part %d", i), recv(p[1], buffer, 16, MSG_DONTWAIT));
    // Wrong control data.
    char control[64] = {0};
    struct iovec v = {buffer, 1};
    m = (struct msghdr){.msg_iov = &v, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    struct cmsghdr *c = (void *)control;
    static const struct {
        size_t len;
        int level, type;
    } bad[] = {{15, SOL_SOCKET, SCM_RIGHTS},  {65, SOL_SOCKET, SCM_RIGHTS}, {16, SOL_SOCKET, SCM_RIGHTS},      {20, SOL_SOCKET, 77},
               {20, SOL_IP, 1},               {20, IPPROTO_TCP, 1},             {20, SOL_SOCKET, SCM_CREDENTIALS}, {0, SOL_SOCKET, SCM_RIGHTS},
               {(size_t)-1, SOL_SOCKET, SCM_RIGHTS}};
    for (unsigned i = 0; i < sizeof bad / sizeof *bad; i++) {
        c->cmsg_len = bad[i].len, c->cmsg_level = bad[i].level, c->cmsg_type = bad[i].type;
        m.msg_controllen = bad[i].len > 56 ? 64 : (bad[i].len + 7) & ~7ul;
        if (m.msg_controllen < 16)
            m.msg_controllen = 16;
        RESULT(CASE("control data %d", i), sendmsg(p[0], &m, MSG_DONTWAIT));
    }
    close(p[0]);
    close(p[1]);
}

static void credentials(void) {
    int p[2];
    struct ucred u;
    socklen_t n = sizeof u;
    socketpair(AF_UNIX, SOCK_STREAM, 0, p);
    RESULT("SO_PEERCRED", getsockopt(p[0], SOL_SOCKET, SO_PEERCRED, &u, &n));
    show("peer", "%d %d %d, %d bytes", u.pid == getpid(), u.uid == geteuid(), u.gid == getegid(), n);
    RESULT("set SO_PEERCRED", setsockopt(p[0], SOL_SOCKET, SO_PEERCRED, &u, sizeof u));
    int s = socket(AF_UNIX, SOCK_STREAM, 0);
    getsockopt(s, SOL_SOCKET, SO_PEERCRED, &u, &n);
    show("peer of an unconnected one", "%d %d %d", u.pid, u.uid, u.gid);
    n = 4;
    RESULT("SO_PEERCRED into 4 bytes", getsockopt(p[0], SOL_SOCKET, SO_PEERCRED, &u, &n));
    show("told", "%d", n);
    close(s);
    for (int i = 0; i < 3; i++) {
        int q[2];
        const char *t = types[i].name;
        socketpair(AF_UNIX, types[i].type, 0, q);
        RESULT(CASE("%s: SO_PASSCRED", t), set_option(q[1], SOL_SOCKET, SO_PASSCRED, 1));
        show(CASE("%s: is on", t), "%d", option(q[1], SOL_SOCKET, SO_PASSCRED));
        send(q[0], "x", 1, 0);
        char byte, control[CMSG_SPACE(sizeof u)] = {0};
        struct iovec v = {&byte, 1};
        struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
        RESULT(CASE("%s: recvmsg", t), recvmsg(q[1], &m, 0));
        struct cmsghdr *c = CMSG_FIRSTHDR(&m);
        show(CASE("%s: control", t), "%d %d %zu, flags %x", c ? c->cmsg_level : -1, c ? c->cmsg_type : -1, m.msg_controllen, m.msg_flags);
        if (c) {
            memcpy(&u, CMSG_DATA(c), sizeof u);
            show(CASE("%s: sender", t), "%d %d %d", u.pid == getpid(), u.uid == geteuid(), u.gid == getegid());
        }
        // One's own pid and nobody else's may be claimed.
        m = (struct msghdr){.msg_iov = &v, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
        c = CMSG_FIRSTHDR(&m);
        *c = (struct cmsghdr){.cmsg_len = CMSG_LEN(sizeof u), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_CREDENTIALS};
        u = (struct ucred){getpid(), geteuid(), getegid()};
        memcpy(CMSG_DATA(c), &u, sizeof u);
        RESULT(CASE("%s: claim what is true", t), sendmsg(q[0], &m, 0));
        u.pid = 999999;
        memcpy(CMSG_DATA(c), &u, sizeof u);
        RESULT(CASE("%s: claim a pid that is none", t), sendmsg(q[0], &m, 0));
        m.msg_controllen = 0;
        m.msg_control = 0;
        RESULT(CASE("%s: no room for them", t), recvmsg(q[1], &m, 0));
        show(CASE("%s: flags then", t), "%x", m.msg_flags);
        close(q[0]);
        close(q[1]);
    }
    // A child sees who made the connection, not who uses it.
    if (fork() == 0) {
        n = sizeof u;
        getsockopt(p[0], SOL_SOCKET, SO_PEERCRED, &u, &n);
        _exit(u.pid == getppid());
    }
    int status;
    wait(&status);
    show("SO_PEERCRED in a child is the parent", "%d", WEXITSTATUS(status));
    close(p[0]);
    close(p[1]);
}

static void options_and_readiness(void) {
    int p[2];
    socketpair(AF_UNIX, SOCK_STREAM, 0, p);
    static const struct {
        int name;
        const char *text;
    } gets[] = {{SO_TYPE, "TYPE"},           {SO_DOMAIN, "DOMAIN"},       {SO_PROTOCOL, "PROTOCOL"}, {SO_ERROR, "ERROR"},
                {SO_ACCEPTCONN, "ACCEPTCONN"}, {SO_REUSEADDR, "REUSEADDR"}, {SO_KEEPALIVE, "KEEPALIVE"}, {SO_BROADCAST, "BROADCAST"},
                {SO_DONTROUTE, "DONTROUTE"}, {SO_OOBINLINE, "OOBINLINE"}, {SO_PRIORITY, "PRIORITY"}, {SO_RCVLOWAT, "RCVLOWAT"},
                {SO_SNDLOWAT, "SNDLOWAT"},   {SO_TIMESTAMP, "TIMESTAMP"}, {SO_PASSCRED, "PASSCRED"}, {SO_SNDBUF, "SNDBUF"},
                {SO_RCVBUF, "RCVBUF"},       {999, "unknown"}};
    for (unsigned i = 0; i < sizeof gets / sizeof *gets; i++)
        show(CASE("SO_%s", gets[i].text), "%d", option(p[0], SOL_SOCKET, gets[i].name));
    static const int read_only[] = {SO_TYPE, SO_DOMAIN, SO_PROTOCOL, SO_ERROR, SO_ACCEPTCONN, SO_SNDLOWAT, 999};
    for (unsigned i = 0; i < sizeof read_only / sizeof *read_only; i++)
        RESULT(CASE("set %d", read_only[i]), set_option(p[0], SOL_SOCKET, read_only[i], 1));
    RESULT("a level it has not", set_option(p[0], IPPROTO_TCP, 1, 1));
    RESULT("get of a level it has not", getsockopt(p[0], IPPROTO_IP, 1, &(int){0}, &(socklen_t){4}));
    RESULT("a short value", setsockopt(p[0], SOL_SOCKET, SO_SNDBUF, "x", 1));
    RESULT("a negative length", setsockopt(p[0], SOL_SOCKET, SO_SNDBUF, "x", -1));
    RESULT("a bad address", setsockopt(p[0], SOL_SOCKET, SO_SNDBUF, (void *)8, 4));
    RESULT("get into a negative length", getsockopt(p[0], SOL_SOCKET, SO_SNDBUF, &(int){0}, &(socklen_t){-1}));
    RESULT("get on a pipe", getsockopt(-1, SOL_SOCKET, SO_SNDBUF, &(int){0}, &(socklen_t){4}));
    static const int sizes[] = {0, 1, 2304, 5000, 100000};
    for (unsigned i = 0; i < 5; i++) {
        set_option(p[0], SOL_SOCKET, SO_SNDBUF, sizes[i]);
        set_option(p[0], SOL_SOCKET, SO_RCVBUF, sizes[i]);
        show(CASE("buffers of %d", sizes[i]), "%d %d", option(p[0], SOL_SOCKET, SO_SNDBUF), option(p[0], SOL_SOCKET, SO_RCVBUF));
    }
    set_option(p[0], SOL_SOCKET, SO_SNDBUF, 100000);
    struct timeval tv;
    socklen_t n = sizeof tv;
    receive_timeout(p[0], 1500);
    getsockopt(p[0], SOL_SOCKET, SO_RCVTIMEO, &tv, &n);
    show("SO_RCVTIMEO", "%ld.%06ld", tv.tv_sec, tv.tv_usec);
    tv = (struct timeval){0, 1000000};
    RESULT("SO_RCVTIMEO of too many microseconds", setsockopt(p[0], SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv));
    RESULT("SO_RCVTIMEO too short", setsockopt(p[0], SOL_SOCKET, SO_RCVTIMEO, &tv, 8));
    struct linger lg = {1, 5};
    RESULT("SO_LINGER", setsockopt(p[0], SOL_SOCKET, SO_LINGER, &lg, sizeof lg));
    RESULT("SO_LINGER too short", setsockopt(p[0], SOL_SOCKET, SO_LINGER, &lg, 4));
    EVENTS("idle", p[0]);
    nonblocking(p[0], 1);
    static char block[65536];
    long total = 0, k;
    while ((k = send(p[0], block, sizeof block, 0)) > 0)
        total += k;
    show("fills", "%d %s", total > 20000, strerrorname_np(errno));
    EVENTS("full", p[0]);
    EVENTS("its reader", p[1]);
    int queued = 0;
    ioctl(p[1], FIONREAD, &queued);
    CHECK("FIONREAD tells all", queued == total);
    while (total > 0 && (k = recv(p[1], block, sizeof block, MSG_DONTWAIT)) > 0)
        total -= k;
    show("all of it comes out", "%ld", total);
    EVENTS("drained", p[0]);
    ioctl(p[0], TIOCOUTQ, &queued);
    show("SIOCOUTQ", "%d", queued);
    RESULT("an unknown ioctl", ioctl(p[0], 0x1234, &queued));
    RESULT("SIOCATMARK", ioctl(p[0], SIOCATMARK, &queued) == 0 || errno == ENOTTY ? 0 : -1);
    nonblocking(p[0], 0);
    // MSG_WAITALL waits for what is still to come.
    if (fork() == 0) {
        close(p[0]);
        send(p[1], "one ", 4, 0);
        usleep(20000);
        send(p[1], "two", 3, 0);
        _exit(0);
    }
    char text[16] = {0};
    RESULT("MSG_WAITALL", recv(p[0], text, 7, MSG_WAITALL));
    show("text", "%s", text);
    wait(0);
    close(p[1]);
    RESULT("end of the stream", read(p[0], text, 1));
    signal(SIGPIPE, SIG_IGN);
    RESULT("write to nobody", write(p[0], "x", 1));
    signal(SIGPIPE, SIG_DFL);
    if (fork() == 0) {
        if (write(p[0], "x", 1) < 0)
            _exit(1);
        _exit(2);
    }
    int status;
    wait(&status);
    show("SIGPIPE", "%d", WIFSIGNALED(status) ? WTERMSIG(status) : 0);
    RESULT("MSG_NOSIGNAL", send(p[0], "x", 1, MSG_NOSIGNAL));
    close(p[0]);
}

// What a socket that was shut, never connected or bound late says.
static void states(void) {
    char buffer[64];
    for (int i = 0; i < 3; i++)
        for (int how = 0; how < 3; how++) {
            const char *t = types[i].name;
            int s = socket(AF_UNIX, types[i].type, 0);
            RESULT(CASE("%s: unconnected: shutdown %d", t, how), shutdown(s, how));
            RESULT(CASE("%s: unconnected, shut %d: send", t, how), send(s, "x", 1, MSG_NOSIGNAL | MSG_DONTWAIT));
            RESULT(CASE("%s: unconnected, shut %d: recv", t, how), recv(s, buffer, 9, MSG_DONTWAIT));
            EVENTS(CASE("%s: unconnected, shut %d: events", t, how), s);
            static char large[300000];
            RESULT(CASE("%s: unconnected, shut %d: too much", t, how), send(s, large, sizeof large, MSG_NOSIGNAL | MSG_DONTWAIT));
            RESULT(CASE("%s: unconnected, shut %d: from nowhere", t, how), send(s, bad_address, 9, MSG_NOSIGNAL | MSG_DONTWAIT));
            RESULT(CASE("%s: unconnected, shut %d: to nobody", t, how),
                   sendto(s, "x", 1, MSG_NOSIGNAL | MSG_DONTWAIT, (void *)&(struct sockaddr_un){AF_UNIX, "nobody"}, sizeof(struct sockaddr_un)));
            int bad = 999;
            RESULT(CASE("%s: unconnected, shut %d: a bad descriptor", t, how), send_fds(s, &bad, 1, MSG_NOSIGNAL | MSG_DONTWAIT));
            close(s);
        }
    static const struct {
        int name, value;
    } options[] = {{SO_REUSEPORT, 1}, {SO_REUSEPORT, 0}, {SO_PASSCRED, 1}};
    for (unsigned i = 0; i < 3; i++) {
        int s = socket(AF_UNIX, SOCK_STREAM, 0), d = socket(AF_INET, SOCK_DGRAM, 0), n = socket(AF_NETLINK, SOCK_RAW, 0);
        int *fds[] = {&s, &d, &n};
        for (int k = 0; k < 3; k++) {
            if (k == 1 && options[i].name == SO_PASSCRED)
                continue; // only since Linux 6.16 an error
            RESULT(CASE("set option %d to %d on family %d", options[i].name, options[i].value, k), set_option(*fds[k], SOL_SOCKET, options[i].name, options[i].value));
            show(CASE("option %d on family %d", options[i].name, k), "%d", option(*fds[k], SOL_SOCKET, options[i].name));
            close(*fds[k]);
        }
        close(d);
    }
    // A name that comes after the message is shown with it.
    for (int i = 0; i < 3; i++) {
        int p[2];
        address_t from = {0};
        socketpair(AF_UNIX, types[i].type, 0, p);
        send(p[0], "early", 5, 0);
        RESULT(CASE("%s: bind after sending", types[i].name), bind_to(p[0], un("late")));
        RESULT(CASE("%s: bind again, to the same path", types[i].name), bind_to(p[0], un("late")));
        RESULT(CASE("%s: bind again, to another path", types[i].name), bind_to(p[0], un("later")));
        socklen_t n = sizeof from;
        RESULT(CASE("%s: receive", types[i].name), recvfrom(p[1], buffer, 64, MSG_DONTWAIT, &from.any, &n));
        show(CASE("%s: from", types[i].name), "%d %s", n, n > 2 ? from.un.sun_path : "");
        n = sizeof from;
        RESULT(CASE("%s: peer", types[i].name), getpeername(p[1], &from.any, &n));
        show(CASE("%s: its name", types[i].name), "%d %s", n, n > 2 ? from.un.sun_path : "");
        close(p[0]);
        close(p[1]);
        unlink("late");
    }
    // Who shows credentials gets a name of its own.
    for (int i = 0; i < 3; i++) {
        int l = socket(AF_UNIX, types[i].type, 0), s = socket(AF_UNIX, types[i].type, 0);
        bind_to(l, un("target"));
        listen(l, 1);
        set_option(s, SOL_SOCKET, SO_PASSCRED, 1);
        RESULT(CASE("%s: connect", types[i].name), connect_to(s, un("target")));
        address_t a = {0};
        socklen_t n = sizeof a;
        getsockname(s, &a.any, &n);
        show(CASE("%s: named by itself", types[i].name), "%d %d", n, a.un.sun_path[0]);
        close(l);
        close(s);
        unlink("target");
    }
    // The end of a stream has no sender.
    int p[2];
    socketpair(AF_UNIX, SOCK_STREAM, 0, p);
    set_option(p[1], SOL_SOCKET, SO_PASSCRED, 1);
    send(p[0], "x", 1, 0);
    close(p[0]);
    for (int i = 0; i < 2; i++) {
        char control[64];
        struct iovec v = {buffer, 64};
        struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
        RESULT(CASE("end %d", i), recvmsg(p[1], &m, MSG_DONTWAIT));
        struct cmsghdr *c = CMSG_FIRSTHDR(&m);
        struct ucred u = {0};
        if (c)
            memcpy(&u, CMSG_DATA(c), sizeof u);
        show(CASE("its control %d", i), "%zu pid %d uid %d", m.msg_controllen, u.pid == (i ? 0 : getpid()), u.uid == (i ? 0 : geteuid()));
    }
    close(p[1]);
    int m = memfd_create("source", 0);
    if (ftruncate(m, 5000) != 0)
        return;
    for (int i = 0; i < 3; i++) {
        int s = socket(AF_UNIX, types[i].type, 0);
        RESULT(CASE("%s: sendfile to an unconnected one", types[i].name), (signal(SIGPIPE, SIG_IGN), sendfile(s, m, &(off_t){0}, 100)));
        close(s);
        socketpair(AF_UNIX, types[i].type, 0, p);
        RESULT(CASE("%s: sendfile", types[i].name), sendfile(p[0], m, &(off_t){0}, 3000));
        RESULT(CASE("%s: what came", types[i].name), recv(p[1], (char[6000]){0}, 6000, MSG_DONTWAIT));
        RESULT(CASE("%s: map it", types[i].name), (long)mmap(NULL, 4096, PROT_READ, MAP_PRIVATE, p[0], 0));
        close(p[0]);
        close(p[1]);
    }
    RESULT("sendfile of a directory's nothing", sendfile(m, open(".", O_RDONLY), NULL, 0));
    close(m);
}

// Sockets that only messages in their own queues refer to do not use up what may be in flight.
static void rings(void) {
    int p[2], q[2], kept[2], failed = 0;
    char byte;
    socketpair(AF_UNIX, SOCK_STREAM, 0, kept);
    for (int i = 0; i < 3000; i++) {
        if (socketpair(AF_UNIX, i % 2 ? SOCK_STREAM : SOCK_DGRAM, 0, p) != 0 || socketpair(AF_UNIX, SOCK_STREAM, 0, q) != 0)
            failed |= 1;
        int all[] = {p[0], p[1], q[0], q[1], p[0], q[1], kept[1], p[0]};
        if (send_fds(p[0], all, 8, MSG_DONTWAIT) != 1 || send_fds(q[1], all, 8, MSG_DONTWAIT) != 1 || send_fds(p[1], all, 4, MSG_DONTWAIT) != 1)
            failed |= 2;
        close(p[0]);
        close(p[1]);
        close(q[0]);
        close(q[1]);
    }
    show("rings", "%d", failed);
    send(kept[0], "k", 1, 0);
    RESULT("what somebody has is not lost", recv(kept[1], &byte, 1, MSG_DONTWAIT));
    close(kept[1]);
    // Its last copies were in the rings.
    for (int i = 0; i < 200 && recv(kept[0], &byte, 1, MSG_DONTWAIT) < 0; i++)
        usleep(10000);
    RESULT("and is closed with them", recv(kept[0], &byte, 1, MSG_DONTWAIT));
    close(kept[0]);
    // A socket on the way to itself comes out while somebody can take it.
    int back[4];
    struct msghdr m;
    socketpair(AF_UNIX, SOCK_STREAM, 0, p);
    send_fds(p[0], &p[1], 1, 0);
    close(p[0]);
    socketpair(AF_UNIX, SOCK_STREAM, 0, q);
    send_fds(q[0], &p[1], 1, 0);
    close(p[1]);
    show("out of the second", "%ld", receive_fds(q[1], back, CMSG_SPACE(4), 0, &m));
    show("out of itself", "%ld", receive_fds(back[0], back + 1, CMSG_SPACE(4), 0, &m));
    RESULT("the end", recv(back[1], &byte, 1, MSG_DONTWAIT));
    close(back[0]);
    close(back[1]);
    close(q[0]);
    close(q[1]);
}

int main(void) {
    setvbuf(stdout, 0, _IOFBF, 1 << 16);
    scratch();
    creation();
    names();
    connections();
    shutdowns();
    messages();
    datagrams();
    rights();
    credentials();
    options_and_readiness();
    states();
    rings();
    return 0;
}

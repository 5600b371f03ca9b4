// Loopback TCP, IPv4 and IPv6: names and ports, connections, ends, resets, urgent data, options, flow control, readiness.
#include "net.h"
#include <netinet/tcp.h>

static int family = AF_INET;
static const char *version = "v4";
static address_t here(int port) { return family == AF_INET ? in4("127.0.0.1", port) : in6("::1", port); }
static address_t any(int port) { return family == AF_INET ? in4("0.0.0.0", port) : in6("::", port); }
static int tcp(void) { return socket(family, SOCK_STREAM, 0); }

// A listener on a port that the kernel chose.
static int listener(int backlog, address_t *at) {
    int l = tcp();
    bind_to(l, here(0));
    listen(l, backlog);
    *at = name_of(l);
    return l;
}

// A connection: p[0] made it, p[1] was accepted.
static void pair(int p[2]) {
    address_t a;
    int l = listener(5, &a);
    p[0] = tcp();
    connect_to(p[0], a);
    p[1] = accept(l, 0, 0);
    close(l);
}

static void both_close(int p[2]) {
    close(p[0]);
    close(p[1]);
}

#define N(text) CASE("%s " text, version)

static void creation(void) {
    static const struct {
        int family, type, protocol;
    } cases[] = {{AF_INET, SOCK_STREAM, 0},   {AF_INET, SOCK_STREAM, IPPROTO_TCP},   {AF_INET, SOCK_STREAM, IPPROTO_UDP},
                 {AF_INET6, SOCK_STREAM, 0},  {AF_INET6, SOCK_STREAM, IPPROTO_TCP},  {AF_INET, SOCK_SEQPACKET, 0},
                 {AF_INET, SOCK_STREAM, 300}, {AF_INET, SOCK_STREAM, -1},            {AF_INET, 0, 0},
                 {AF_INET, SOCK_RDM, 0},      {AF_INET6, SOCK_STREAM, IPPROTO_ICMP}, {AF_INET, SOCK_DGRAM, IPPROTO_TCP}};
    for (unsigned i = 0; i < sizeof cases / sizeof *cases; i++) {
        int fd = socket(cases[i].family, cases[i].type, cases[i].protocol);
        works_of(CASE("socket %d %d %d", cases[i].family, cases[i].type, cases[i].protocol), fd);
        if (fd >= 0)
            show(CASE("case %d", i), "%d %d %d", option(fd, SOL_SOCKET, SO_DOMAIN), option(fd, SOL_SOCKET, SO_TYPE),
                 option(fd, SOL_SOCKET, SO_PROTOCOL));
        close(fd);
    }
    int p[2];
    RESULT("socketpair", socketpair(AF_INET, SOCK_STREAM, 0, p));
}

static void names(void) {
    address_t a, b;
    int s = tcp(), t = tcp(), u = tcp();
    a = name_of(s);
    show(N("name before bind"), "%s %d", text_of(&a), port_of(&a));
    socklen_t n = sizeof a;
    RESULT(N("peer before connect"), getpeername(s, &a.any, &n));
    RESULT(N("bind to port 0"), bind_to(s, here(0)));
    a = name_of(s);
    show(N("name"), "%s %d", text_of(&a), port_of(&a) >= 32768 && port_of(&a) <= 60999);
    int port = port_of(&a);
    RESULT(N("bind twice"), bind_to(s, here(0)));
    RESULT(N("bind the same"), bind_to(t, here(port)));
    RESULT(N("bind the wildcard"), bind_to(t, any(port)));
    set_option(t, SOL_SOCKET, SO_REUSEADDR, 1);
    RESULT(N("one has SO_REUSEADDR"), bind_to(t, here(port)));
    set_option(s, SOL_SOCKET, SO_REUSEADDR, 1);
    RESULT(N("both have SO_REUSEADDR"), bind_to(t, here(port)));
    RESULT(N("listen on the first"), listen(s, 1));
    RESULT(N("listen on the second"), listen(t, 1));
    set_option(u, SOL_SOCKET, SO_REUSEADDR, 1);
    RESULT(N("bind beside a listener"), bind_to(u, here(port)));
    close(s);
    close(t);
    close(u);
    s = tcp(), t = tcp(), u = tcp();
    set_option(s, SOL_SOCKET, SO_REUSEPORT, 1);
    set_option(t, SOL_SOCKET, SO_REUSEPORT, 1);
    bind_to(s, here(0));
    a = name_of(s);
    RESULT(N("SO_REUSEPORT"), bind_to(t, a));
    RESULT(N("without it"), bind_to(u, a));
    RESULT(N("listen on both"), listen(s, 100) + listen(t, 100));
    int clients[40], first = 0, second = 0;
    for (int i = 0; i < 40; i++) {
        clients[i] = tcp();
        connect_to(clients[i], a);
    }
    nonblocking(s, 1);
    nonblocking(t, 1);
    for (int fd; (fd = accept(s, 0, 0)) >= 0; close(fd))
        first++;
    for (int fd; (fd = accept(t, 0, 0)) >= 0; close(fd))
        second++;
    show(N("connections are shared out"), "%d %d %d", first + second, first > 0, second > 0);
    for (int i = 0; i < 40; i++)
        close(clients[i]);
    close(s);
    close(t);
    close(u);
    static const struct {
        const char *text4, *text6;
    } where[] = {{"127.0.0.2", "::2"}, {"127.255.255.254", "::ffff:127.0.0.1"}, {"0.0.0.0", "::"}, {"10.1.2.3", "2001:db8::1"},
                 {"255.255.255.255", "ff02::1"}, {"224.0.0.1", "fe80::1"}, {"127.255.255.255", "::127.0.0.1"}};
    for (unsigned i = 0; i < sizeof where / sizeof *where; i++) {
        s = tcp();
        RESULT(CASE("%s bind to %s", version, family == AF_INET ? where[i].text4 : where[i].text6),
               bind_to(s, family == AF_INET ? in4(where[i].text4, 0) : in6(where[i].text6, 0)));
        a = name_of(s);
        show(CASE("%s name %d", version, i), "%s %d", text_of(&a), port_of(&a) != 0);
        close(s);
    }
    s = tcp();
    a = here(0);
    RESULT(N("bind with a short length"), bind(s, &a.any, 8));
    RESULT(N("bind with length 0"), bind(s, &a.any, 0));
    RESULT(N("bind with a huge length"), bind(s, &a.any, 200));
    a.any.sa_family = AF_UNIX;
    RESULT(N("bind to another family"), bind(s, &a.any, family == AF_INET ? 16 : 28));
    a = any(0);
    a.any.sa_family = AF_UNSPEC;
    RESULT(N("bind to AF_UNSPEC"), bind(s, &a.any, family == AF_INET ? 16 : 28));
    close(s);
    s = tcp();
    a = here(0);
    RESULT(N("connect with a short length"), connect(s, &a.any, 8));
    a.any.sa_family = AF_UNIX;
    RESULT(N("connect to another family"), connect(s, &a.any, family == AF_INET ? 16 : 28));
    RESULT(N("connect to port 0"), connect_to(s, here(0)));
    close(s);
    // The name shows what connect chose.
    s = listener(3, &a);
    t = tcp();
    RESULT(N("connect"), connect_to(t, a));
    b = name_of(t);
    show(N("chosen name"), "%s %d", text_of(&b), port_of(&b) != 0);
    address_t c = peer_of(t);
    show(N("peer"), "%s %d", text_of(&c), port_of(&c) == port_of(&a));
    n = sizeof c;
    u = accept(s, &c.any, &n);
    show(N("accepted from"), "%s %d %d", text_of(&c), port_of(&c) == port_of(&b), n);
    c = name_of(u);
    show(N("name of the accepted"), "%s %d", text_of(&c), port_of(&c) == port_of(&a));
    n = 2;
    RESULT(N("peer into 2 bytes"), getpeername(u, &c.any, &n));
    show(N("told"), "%d", n);
    RESULT(N("bind a connected one"), bind_to(t, here(0)));
    close(u);
    close(t);
    // The wildcard and 0.0.0.0 as a destination.
    close(s);
    s = tcp();
    bind_to(s, any(0));
    listen(s, 3);
    a = name_of(s);
    t = tcp();
    RESULT(N("connect to the wildcard"), connect_to(t, a));
    c = peer_of(t);
    show(N("peer then"), "%s", text_of(&c));
    close(t);
    close(s);
}

static void connections(void) {
    address_t a, dead;
    char buffer[64];
    int l = listener(1, &a), s, c, x;
    close(l);
    dead = a;
    s = tcp();
    RESULT(N("connect to nobody"), connect_to(s, dead));
    EVENTS(N("refused"), s);
    show(N("refused: SO_ERROR"), "%d", option(s, SOL_SOCKET, SO_ERROR));
    RESULT(N("refused: send"), send(s, "x", 1, MSG_NOSIGNAL));
    RESULT(N("refused: recv"), recv(s, buffer, 1, MSG_DONTWAIT));
    RESULT(N("refused: again"), connect_to(s, dead));
    l = listener(1, &a);
    RESULT(N("refused: then to somebody"), connect_to(s, a));
    close(s);
    close(l);
    s = tcp();
    nonblocking(s, 1);
    RESULT(N("non-blocking connect to nobody"), connect_to(s, dead));
    poll(&(struct pollfd){s, POLLOUT, 0}, 1, 1000);
    EVENTS(N("non-blocking refused"), s);
    show(N("non-blocking refused: SO_ERROR"), "%d", option(s, SOL_SOCKET, SO_ERROR));
    show(N("non-blocking refused: SO_ERROR again"), "%d", option(s, SOL_SOCKET, SO_ERROR));
    close(s);
    s = tcp();
    nonblocking(s, 1);
    connect_to(s, dead);
    poll(&(struct pollfd){s, POLLOUT, 0}, 1, 1000);
    RESULT(N("connect tells the refusal"), connect_to(s, dead));
    close(s);
    s = tcp();
    nonblocking(s, 1);
    connect_to(s, dead);
    poll(&(struct pollfd){s, POLLOUT, 0}, 1, 1000);
    RESULT(N("so does recv"), recv(s, buffer, 1, 0));
    RESULT(N("once"), recv(s, buffer, 1, 0));
    close(s);
    l = listener(5, &a);
    EVENTS(N("listener"), l);
    show(N("SO_ACCEPTCONN"), "%d", option(l, SOL_SOCKET, SO_ACCEPTCONN));
    c = tcp();
    EVENTS(N("unconnected"), c);
    RESULT(N("unconnected: send"), send(c, "x", 1, MSG_NOSIGNAL));
    RESULT(N("unconnected: recv"), recv(c, buffer, 1, MSG_DONTWAIT));
    s = tcp();
    RESULT(N("unconnected: shutdown"), shutdown(s, SHUT_RDWR));
    EVENTS(N("unconnected and shut"), s);
    RESULT(N("unconnected and shut: recv"), recv(s, buffer, 1, MSG_DONTWAIT));
    close(s);
    RESULT(N("unconnected: accept"), accept(c, 0, 0));
    nonblocking(c, 1);
    RESULT(N("non-blocking connect"), connect_to(c, a));
    poll(&(struct pollfd){c, POLLOUT, 0}, 1, 1000);
    EVENTS(N("connected"), c);
    EVENTS(N("listener with a connection"), l);
    show(N("SO_ERROR of a connection"), "%d", option(c, SOL_SOCKET, SO_ERROR));
    RESULT(N("connect when it is made"), connect_to(c, a));
    RESULT(N("and again"), connect_to(c, a));
    RESULT(N("listen on a connection"), listen(c, 1));
    RESULT(N("connect of a listener"), connect_to(l, a));
    RESULT(N("send to a listener"), send(l, "x", 1, MSG_NOSIGNAL));
    RESULT(N("recv from a listener"), recv(l, buffer, 1, MSG_DONTWAIT));
    int k;
    RESULT(N("FIONREAD of a listener"), ioctl(l, FIONREAD, &k));
    RESULT(N("data before accept"), send(c, "early", 5, 0));
    x = accept4(l, 0, 0, SOCK_NONBLOCK | SOCK_CLOEXEC);
    show(N("flags of an accepted one"), "%d %d", fcntl(x, F_GETFD), (fcntl(x, F_GETFL) & O_NONBLOCK) != 0);
    RESULT(N("accept4 with bad flags"), accept4(l, 0, 0, 1));
    poll(&(struct pollfd){x, POLLIN, 0}, 1, 1000);
    RESULT(N("early data"), recv(x, buffer, 64, 0));
    nonblocking(l, 1);
    RESULT(N("nothing to accept"), accept(l, 0, 0));
    nonblocking(l, 0);
    receive_timeout(l, 20);
    RESULT(N("accept with SO_RCVTIMEO"), accept(l, 0, 0));
    RESULT(N("accept on -1"), accept(-1, 0, 0));
    RESULT(N("accept to a bad address"), (connect_to(s = tcp(), a), accept(l, (void *)8, (void *)8)));
    close(s);
    close(x);
    // Disconnect and use again.
    RESULT(N("connect AF_UNSPEC"), connect(c, &(struct sockaddr){AF_UNSPEC, ""}, sizeof(struct sockaddr)));
    EVENTS(N("disconnected"), c);
    RESULT(N("disconnected: send"), send(c, "x", 1, MSG_NOSIGNAL));
    socklen_t n = sizeof a;
    address_t other;
    RESULT(N("disconnected: peer"), getpeername(c, &other.any, &n));
    nonblocking(c, 0);
    RESULT(N("connect again"), connect_to(c, a));
    close(c);
    close(l);
    // What waits for a listener that goes.
    l = listener(5, &a);
    c = tcp();
    connect_to(c, a);
    close(l);
    poll(&(struct pollfd){c, POLLIN, 0}, 1, 1000);
    EVENTS(N("listener gone"), c);
    RESULT(N("listener gone: recv"), recv(c, buffer, 1, MSG_DONTWAIT));
    RESULT(N("listener gone: recv again"), recv(c, buffer, 1, MSG_DONTWAIT));
    RESULT(N("listener gone: send"), send(c, "x", 1, MSG_NOSIGNAL));
    close(c);
    // shutdown of a listener.
    l = listener(5, &a);
    RESULT(N("shutdown a listener"), shutdown(l, SHUT_RD));
    EVENTS(N("shut listener"), l);
    RESULT(N("accept from it"), accept(l, 0, 0));
    c = tcp();
    RESULT(N("connect to it"), connect_to(c, a));
    RESULT(N("listen again"), listen(l, 5));
    show(N("it listens"), "%d", option(l, SOL_SOCKET, SO_ACCEPTCONN));
    close(c);
    close(l);
    // Destinations.
    static const struct {
        const char *v4, *v6;
    } far[] = {{"10.1.2.3", "2001:db8::1"}, {"8.8.8.8", "2606:4700:4700::1111"}, {"224.0.0.1", "ff02::1"}, {"255.255.255.255", "fe80::1"}};
    for (unsigned i = 0; i < 4; i++) {
        s = tcp();
        RESULT(CASE("%s connect to %s", version, family == AF_INET ? far[i].v4 : far[i].v6),
               connect_to(s, family == AF_INET ? in4(far[i].v4, 80) : in6(far[i].v6, 80)));
        close(s);
    }
}

static void ends(void) {
    char buffer[64];
    int p[2];
    static const char *hows[] = {"RD", "WR", "RDWR"};
    for (int how = 0; how < 3; how++) {
        pair(p);
        send(p[1], "left", 4, 0);
        poll(&(struct pollfd){p[0], POLLIN, 0}, 1, 1000);
        RESULT(CASE("%s shutdown %s", version, hows[how]), shutdown(p[0], how));
        if (how != 0)
            poll(&(struct pollfd){p[1], POLLRDHUP, 0}, 1, 1000);
        EVENTS(CASE("%s %s: own events", version, hows[how]), p[0]);
        EVENTS(CASE("%s %s: peer's events", version, hows[how]), p[1]);
        RESULT(CASE("%s %s: send", version, hows[how]), send(p[0], "x", 1, MSG_NOSIGNAL));
        RESULT(CASE("%s %s: recv", version, hows[how]), recv(p[0], buffer, 64, MSG_DONTWAIT));
        RESULT(CASE("%s %s: recv again", version, hows[how]), recv(p[0], buffer, 64, MSG_DONTWAIT));
        usleep(1000);
        RESULT(CASE("%s %s: peer receives", version, hows[how]), recv(p[1], buffer, 64, MSG_DONTWAIT));
        RESULT(CASE("%s %s: again", version, hows[how]), shutdown(p[0], how));
        both_close(p);
    }
    // One end closes.
    pair(p);
    send(p[0], "bye", 3, 0);
    close(p[0]);
    poll(&(struct pollfd){p[1], POLLRDHUP, 0}, 1, 1000);
    EVENTS(N("peer closed"), p[1]);
    RESULT(N("the rest"), recv(p[1], buffer, 64, 0));
    RESULT(N("the end"), recv(p[1], buffer, 64, 0));
    RESULT(N("first send"), send(p[1], "x", 1, MSG_NOSIGNAL));
    poll(&(struct pollfd){p[1], 0, 0}, 1, 1000);
    EVENTS(N("after the reset"), p[1]);
    show(N("SO_ERROR after it"), "%d", option(p[1], SOL_SOCKET, SO_ERROR));
    RESULT(N("second send"), send(p[1], "x", 1, MSG_NOSIGNAL));
    RESULT(N("recv at last"), recv(p[1], buffer, 64, 0));
    close(p[1]);
    // Closed with unread data: a reset.
    pair(p);
    send(p[1], "unread", 6, 0);
    poll(&(struct pollfd){p[0], POLLIN, 0}, 1, 1000);
    close(p[0]);
    poll(&(struct pollfd){p[1], 0, 0}, 1, 1000);
    EVENTS(N("reset"), p[1]);
    RESULT(N("reset: recv"), recv(p[1], buffer, 64, 0));
    RESULT(N("reset: recv again"), recv(p[1], buffer, 64, 0));
    RESULT(N("reset: send"), send(p[1], "x", 1, MSG_NOSIGNAL));
    socklen_t n = sizeof(address_t);
    address_t a;
    RESULT(N("reset: peer"), getpeername(p[1], &a.any, &n));
    close(p[1]);
    // SO_LINGER of 0.
    pair(p);
    struct linger lg = {1, 0};
    setsockopt(p[0], SOL_SOCKET, SO_LINGER, &lg, sizeof lg);
    send(p[0], "lost?", 5, 0);
    poll(&(struct pollfd){p[1], POLLIN, 0}, 1, 1000);
    close(p[0]);
    poll(&(struct pollfd){p[1], 0, 0}, 1, 1000);
    EVENTS(N("linger 0"), p[1]);
    show(N("linger 0: SO_ERROR"), "%d", option(p[1], SOL_SOCKET, SO_ERROR));
    EVENTS(N("linger 0: after SO_ERROR"), p[1]);
    RESULT(N("linger 0: recv"), recv(p[1], buffer, 64, MSG_DONTWAIT));
    RESULT(N("linger 0: recv again"), recv(p[1], buffer, 64, MSG_DONTWAIT));
    close(p[1]);
    // Half closed, the other way still goes.
    pair(p);
    shutdown(p[0], SHUT_WR);
    poll(&(struct pollfd){p[1], POLLRDHUP, 0}, 1, 1000);
    RESULT(N("half: end"), recv(p[1], buffer, 64, 0));
    RESULT(N("half: send"), send(p[1], "still", 5, 0));
    RESULT(N("half: recv"), recv(p[0], buffer, 64, 0));
    close(p[1]);
    poll(&(struct pollfd){p[0], POLLIN, 0}, 1, 1000);
    EVENTS(N("half: both ends done"), p[0]);
    RESULT(N("half: end here"), recv(p[0], buffer, 64, 0));
    close(p[0]);
    // SIGPIPE.
    pair(p);
    shutdown(p[0], SHUT_WR);
    if (fork() == 0) {
        RESULT(N("not reached"), write(p[0], "x", 1));
        _exit(1);
    }
    int status;
    wait(&status);
    show(N("SIGPIPE"), "%d", WIFSIGNALED(status) ? WTERMSIG(status) : 0);
    both_close(p);
}

static void data(void) {
    char buffer[256], other[64];
    int p[2], n;
    pair(p);
    send(p[0], "hello", 5, 0);
    send(p[0], "world", 5, MSG_MORE);
    send(p[0], "!", 1, 0);
    for (int i = 0; i < 100 && (ioctl(p[1], FIONREAD, &n), n < 11); i++)
        usleep(1000);
    show(N("FIONREAD"), "%d", n);
    RESULT(N("peek"), recv(p[1], buffer, 3, MSG_PEEK));
    RESULT(N("peek all"), recv(p[1], buffer, 256, MSG_PEEK));
    RESULT(N("MSG_TRUNC drops"), recv(p[1], buffer, 2, MSG_TRUNC));
    struct iovec v[2] = {{buffer, 2}, {other, 1}};
    struct msghdr m = {.msg_iov = v, .msg_iovlen = 2, .msg_name = buffer + 100, .msg_namelen = 50};
    RESULT(N("recvmsg into 3"), recvmsg(p[1], &m, 0));
    show(N("text"), "%.2s%.1s %x %d", buffer, other, m.msg_flags, m.msg_namelen);
    address_t from;
    socklen_t len = sizeof from;
    RESULT(N("recvfrom"), recvfrom(p[1], buffer, 256, 0, &from.any, &len));
    show(N("no name"), "%d", len);
    RESULT(N("recv 0"), recv(p[1], buffer, 0, MSG_DONTWAIT));
    RESULT(N("read 0"), read(p[1], buffer, 0));
    RESULT(N("send 0"), send(p[0], "", 0, 0));
    RESULT(N("empty"), recv(p[1], buffer, 1, MSG_DONTWAIT));
    RESULT(N("sendto ignores the address"), sendto(p[0], "a", 1, 0, (void *)buffer, 16));
    RESULT(N("bad address"), send(p[0], (void *)8, 5, 0));
    RESULT(N("to a bad address"), recv(p[1], (void *)8, 5, 0));
    RESULT(N("still there"), recv(p[1], buffer, 5, 0));
    receive_timeout(p[1], 20);
    RESULT(N("SO_RCVTIMEO"), recv(p[1], buffer, 1, 0));
    receive_timeout(p[1], 0);
    RESULT(N("MSG_ERRQUEUE"), recv(p[1], buffer, 1, MSG_ERRQUEUE));
    if (fork() == 0) {
        send(p[0], "one ", 4, 0);
        usleep(20000);
        send(p[0], "two", 3, 0);
        _exit(0);
    }
    RESULT(N("MSG_WAITALL"), recv(p[1], buffer, 7, MSG_WAITALL));
    wait(0);
    set_option(p[1], SOL_SOCKET, SO_RCVLOWAT, 4);
    show(N("SO_RCVLOWAT"), "%d", option(p[1], SOL_SOCKET, SO_RCVLOWAT));
    send(p[0], "abc", 3, 0);
    usleep(1000);
    EVENTS(N("below the mark"), p[1]);
    RESULT(N("do not wait"), recv(p[1], buffer, 10, MSG_DONTWAIT | MSG_PEEK));
    send(p[0], "d", 1, 0);
    poll(&(struct pollfd){p[1], POLLIN, 0}, 1, 1000);
    EVENTS(N("at the mark"), p[1]);
    RESULT(N("all"), recv(p[1], buffer, 10, 0));
    both_close(p);
    // Flow control.
    pair(p);
    nonblocking(p[0], 1);
    static char block[1 << 16];
    long total = 0, k;
    for (int idle = 0; idle < 5; idle++) {
        while ((k = send(p[0], block, sizeof block, 0)) > 0)
            total += k, idle = 0;
        usleep(2000);
    }
    show(N("fills"), "%d %s", total > 100000, strerrorname_np(errno));
    EVENTS(N("full"), p[0]);
    struct timeval tv = {0, 20000};
    setsockopt(p[0], SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof tv);
    nonblocking(p[0], 0);
    RESULT(N("SO_SNDTIMEO"), send(p[0], block, 10, 0));
    long got = 0;
    while (got < total && (k = recv(p[1], block, sizeof block, 0)) > 0)
        got += k;
    show(N("all arrives"), "%ld", total - got);
    poll(&(struct pollfd){p[0], POLLOUT, 0}, 1, 1000);
    EVENTS(N("room again"), p[0]);
    both_close(p);
    // A large blocking send.
    pair(p);
    if (fork() == 0) {
        close(p[0]);
        long sum = 0;
        while ((k = recv(p[1], block, sizeof block, 0)) > 0)
            sum += k;
        _exit(sum == 4 << 20 ? 0 : 1);
    }
    close(p[1]);
    char *big = calloc(1, 4 << 20);
    RESULT(N("4 MiB at once"), send(p[0], big, 4 << 20, 0));
    free(big);
    close(p[0]);
    int status;
    wait(&status);
    show(N("arrived"), "%d", WEXITSTATUS(status));
}

static void urgent(void) {
    char buffer[64];
    int p[2], at = -1;
    pair(p);
    RESULT(N("no urgent data"), recv(p[1], buffer, 1, MSG_OOB));
    RESULT(N("SIOCATMARK"), ioctl(p[1], SIOCATMARK, &at));
    show(N("not at it"), "%d", at);
    send(p[0], "abc", 3, 0);
    RESULT(N("send urgent"), send(p[0], "U", 1, MSG_OOB));
    send(p[0], "def", 3, 0);
    poll(&(struct pollfd){p[1], POLLPRI, 0}, 1, 1000);
    usleep(1000);
    EVENTS(N("urgent"), p[1]);
    fd_set x;
    FD_ZERO(&x);
    FD_SET(p[1], &x);
    RESULT(N("select"), select(p[1] + 1, 0, 0, &x, &(struct timeval){0, 0}));
    int n;
    ioctl(p[1], FIONREAD, &n);
    show(N("FIONREAD stops there"), "%d", n);
    RESULT(N("peek urgent"), recv(p[1], buffer, 1, MSG_OOB | MSG_PEEK));
    RESULT(N("receive urgent"), recv(p[1], buffer, 10, MSG_OOB));
    show(N("the byte"), "%c", buffer[0]);
    RESULT(N("only once"), recv(p[1], buffer, 1, MSG_OOB));
    EVENTS(N("taken"), p[1]);
    RESULT(N("up to the mark"), recv(p[1], buffer, 64, 0));
    ioctl(p[1], SIOCATMARK, &at);
    show(N("at the mark"), "%d", at);
    RESULT(N("past it"), recv(p[1], buffer, 64, 0));
    show(N("without the byte"), "%.3s", buffer);
    ioctl(p[1], SIOCATMARK, &at);
    show(N("past the mark"), "%d", at);
    set_option(p[1], SOL_SOCKET, SO_OOBINLINE, 1);
    send(p[0], "12", 2, 0);
    send(p[0], "3", 1, MSG_OOB);
    send(p[0], "45", 2, 0);
    poll(&(struct pollfd){p[1], POLLPRI, 0}, 1, 1000);
    usleep(1000);
    RESULT(N("inline: MSG_OOB"), recv(p[1], buffer, 1, MSG_OOB));
    RESULT(N("inline: up to it"), recv(p[1], buffer, 64, 0));
    ioctl(p[1], SIOCATMARK, &at);
    show(N("inline: at it"), "%d", at);
    RESULT(N("inline: with it"), recv(p[1], buffer, 64, 0));
    show(N("inline: text"), "%.3s", buffer);
    both_close(p);
}

static void options(void) {
    static const struct {
        int level, name;
        const char *text;
        int values[6];
    } all[] = {{SOL_SOCKET, SO_REUSEADDR, "REUSEADDR", {0, 1, 5, -1}},
               {SOL_SOCKET, SO_REUSEPORT, "REUSEPORT", {0, 1, 5, -1}},
               {SOL_SOCKET, SO_KEEPALIVE, "KEEPALIVE", {0, 1, 5, -1}},
               {SOL_SOCKET, SO_OOBINLINE, "OOBINLINE", {0, 1, 5, -1}},
               {SOL_SOCKET, SO_BROADCAST, "BROADCAST", {0, 1, 5, -1}},
               {SOL_SOCKET, SO_DONTROUTE, "DONTROUTE", {0, 1, 5, -1}},
               {SOL_SOCKET, SO_PRIORITY, "PRIORITY", {0, 1, 6}},
               {SOL_SOCKET, SO_RCVLOWAT, "RCVLOWAT", {0, 1, 100}},
               {IPPROTO_TCP, TCP_NODELAY, "NODELAY", {0, 1, 5, -1}},
               {IPPROTO_TCP, TCP_CORK, "CORK", {0, 1, 5, -1}},
               {IPPROTO_TCP, TCP_KEEPIDLE, "KEEPIDLE", {0, 1, 32767, 32768, -1}},
               {IPPROTO_TCP, TCP_KEEPINTVL, "KEEPINTVL", {0, 1, 32767, 32768, -1}},
               {IPPROTO_TCP, TCP_KEEPCNT, "KEEPCNT", {0, 1, 127, 128, -1}},
               {IPPROTO_TCP, TCP_SYNCNT, "SYNCNT", {0, 1, 127, 128, -1}},
               {IPPROTO_TCP, TCP_LINGER2, "LINGER2", {0, 1, 60, 1000, -1}},
               {IPPROTO_TCP, TCP_DEFER_ACCEPT, "DEFER_ACCEPT", {0, 1, 5, 100, -1}},
               {IPPROTO_TCP, TCP_USER_TIMEOUT, "USER_TIMEOUT", {0, 1000, -1}},
               {IPPROTO_TCP, TCP_MAXSEG, "MAXSEG", {0, 87, 88, 1000, 32767, 32768}},
               {IPPROTO_TCP, TCP_FASTOPEN, "FASTOPEN", {0, 5, -1}},
               {IPPROTO_TCP, TCP_FASTOPEN_CONNECT, "FASTOPEN_CONNECT", {0, 1, 2}},
               {IPPROTO_TCP, TCP_NOTSENT_LOWAT, "NOTSENT_LOWAT", {0, 1000}},
               {IPPROTO_TCP, TCP_THIN_LINEAR_TIMEOUTS, "THIN", {0, 1, 2}},
               {IPPROTO_TCP, TCP_SAVE_SYN, "SAVE_SYN", {0, 1, 3}},
               {IPPROTO_TCP, TCP_INQ, "INQ", {0, 1, 2}},
               {IPPROTO_TCP, 999, "unknown", {0}},
               {IPPROTO_IP, IP_TOS, "TOS", {0, 8, 16, 3, 255, 256}},
               {IPPROTO_IP, IP_TTL, "TTL", {0, 1, 64, 255, 256, -1}},
               {IPPROTO_IP, IP_MTU_DISCOVER, "MTU_DISCOVER", {0, 1, 2, 3, 6, -1}},
               {IPPROTO_IP, IP_RECVERR, "RECVERR", {0, 1, 5}},
               {IPPROTO_IP, IP_FREEBIND, "FREEBIND", {0, 1, 5}},
               {IPPROTO_IP, IP_MINTTL, "MINTTL", {0, 255, 256, -1}},
               {IPPROTO_IP, IP_MULTICAST_TTL, "MULTICAST_TTL", {0, 1}},
               {IPPROTO_IP, IP_HDRINCL, "HDRINCL", {0, 1}},
               {IPPROTO_IP, 999, "unknown IP", {0}},
               {IPPROTO_IPV6, IPV6_V6ONLY, "V6ONLY", {0, 1, 5}},
               {IPPROTO_IPV6, IPV6_UNICAST_HOPS, "UNICAST_HOPS", {0, 1, 255, 256, -1, -2}},
               {IPPROTO_IPV6, IPV6_MULTICAST_HOPS, "MULTICAST_HOPS", {1}},
               {IPPROTO_IPV6, IPV6_TCLASS, "TCLASS", {0, 3, 8, 255, 256, -1}},
               {IPPROTO_IPV6, IPV6_RECVPKTINFO, "RECVPKTINFO", {0, 1, 5}},
               {IPPROTO_UDP, 1, "UDP_CORK", {1}}};
    for (unsigned i = 0; i < sizeof all / sizeof *all; i++) {
        int s = tcp();
        show(CASE("%s %s", version, all[i].text), "%d", option(s, all[i].level, all[i].name));
        for (int v = 0; v < 6 && (v == 0 || all[i].values[v] != 0); v++) {
            int result = set_option(s, all[i].level, all[i].name, all[i].values[v]);
            int error = result ? errno : 0;
            show(CASE("%s %s := %d", version, all[i].text, all[i].values[v]), "%s %d", error ? strerrorname_np(error) : "0",
                 option(s, all[i].level, all[i].name));
        }
        close(s);
    }
    int s = tcp();
    char text[64] = "reno";
    socklen_t n;
    RESULT(N("CONGESTION reno"), setsockopt(s, IPPROTO_TCP, TCP_CONGESTION, "reno", 4));
    memset(text, 0, sizeof text);
    n = sizeof text;
    RESULT(N("CONGESTION"), getsockopt(s, IPPROTO_TCP, TCP_CONGESTION, text, &n));
    show(N("CONGESTION is"), "%s %d", text, n);
    RESULT(N("CONGESTION of no such"), setsockopt(s, IPPROTO_TCP, TCP_CONGESTION, "no-such", 7));
    RESULT(N("SO_BINDTODEVICE lo"), setsockopt(s, SOL_SOCKET, SO_BINDTODEVICE, "lo", 3));
    n = sizeof text;
    RESULT(N("get SO_BINDTODEVICE"), getsockopt(s, SOL_SOCKET, SO_BINDTODEVICE, text, &n));
    show(N("device"), "%s %d", text, n);
    RESULT(N("SO_BINDTODEVICE none"), setsockopt(s, SOL_SOCKET, SO_BINDTODEVICE, "eth77", 6));
    n = 2;
    int value = -1;
    RESULT(N("into 2 bytes"), getsockopt(s, SOL_SOCKET, SO_TYPE, &value, &n));
    show(N("told"), "%d %x", n, value & 0xffff);
    RESULT(N("short value"), setsockopt(s, IPPROTO_TCP, TCP_NODELAY, &value, 2));
    value = 40;
    RESULT(N("one byte of IP_TTL"), setsockopt(s, IPPROTO_IP, IP_TTL, &value, 1));
    show(N("TTL"), "%d", option(s, IPPROTO_IP, IP_TTL));
    close(s);
    int p[2];
    pair(p);
    struct tcp_info info;
    n = sizeof info;
    RESULT(N("TCP_INFO"), getsockopt(p[0], IPPROTO_TCP, TCP_INFO, &info, &n));
    show(N("state"), "%d", info.tcpi_state);
    shutdown(p[0], SHUT_WR);
    poll(&(struct pollfd){p[1], POLLRDHUP, 0}, 1, 1000);
    usleep(1000);
    getsockopt(p[0], IPPROTO_TCP, TCP_INFO, &info, &n);
    show(N("state of who has finished"), "%d", info.tcpi_state == TCP_FIN_WAIT1 || info.tcpi_state == TCP_FIN_WAIT2);
    getsockopt(p[1], IPPROTO_TCP, TCP_INFO, &info, &n);
    show(N("state of who has not"), "%d", info.tcpi_state);
    RESULT(N("set FASTOPEN on a connection"), set_option(p[0], IPPROTO_TCP, TCP_FASTOPEN, 5));
    both_close(p);
    // What the accepted one inherits.
    address_t a;
    int l = listener(1, &a), c = tcp();
    set_option(l, IPPROTO_TCP, TCP_NODELAY, 1);
    set_option(l, SOL_SOCKET, SO_KEEPALIVE, 1);
    set_option(l, IPPROTO_IP, IP_TTL, 77);
    set_option(l, SOL_SOCKET, SO_RCVBUF, 50000);
    connect_to(c, a);
    s = accept(l, 0, 0);
    show(N("inherited"), "%d %d %d %d", option(s, IPPROTO_TCP, TCP_NODELAY), option(s, SOL_SOCKET, SO_KEEPALIVE),
         option(s, IPPROTO_IP, IP_TTL), option(s, SOL_SOCKET, SO_RCVBUF));
    show(N("not inherited"), "%d", fcntl(s, F_GETFL) & O_NONBLOCK);
    close(s);
    close(c);
    close(l);
}

// IPv6 sockets that speak IPv4.
static void dual(void) {
    int s = socket(AF_INET6, SOCK_STREAM, 0), t = socket(AF_INET, SOCK_STREAM, 0), u;
    show("V6ONLY at first", "%d", option(s, IPPROTO_IPV6, IPV6_V6ONLY));
    RESULT("dual: bind", bind_to(s, in6("::", 0)));
    RESULT("V6ONLY after bind", set_option(s, IPPROTO_IPV6, IPV6_V6ONLY, 1));
    address_t a = name_of(s), b;
    int port = port_of(&a);
    RESULT("dual: IPv4 bind of the same port", bind_to(t, in4("0.0.0.0", port)));
    RESULT("dual: listen", listen(s, 5));
    RESULT("dual: IPv4 connect", connect_to(t, in4("127.0.0.1", port)));
    socklen_t n = sizeof b;
    u = accept(s, &b.any, &n);
    show("dual: from", "%s %d", text_of(&b), n);
    b = name_of(u);
    show("dual: name", "%s", text_of(&b));
    b = peer_of(t);
    show("dual: peer of the client", "%s", text_of(&b));
    show("dual: levels", "%d %d", option(u, IPPROTO_IP, IP_TTL), option(u, IPPROTO_IPV6, IPV6_V6ONLY));
    close(t);
    close(u);
    t = socket(AF_INET6, SOCK_STREAM, 0);
    RESULT("dual: connect to a mapped address", connect_to(t, in6("::ffff:127.0.0.1", port)));
    b = name_of(t);
    show("dual: own name", "%s", text_of(&b));
    close(t);
    close(s);
    s = socket(AF_INET6, SOCK_STREAM, 0);
    set_option(s, IPPROTO_IPV6, IPV6_V6ONLY, 1);
    bind_to(s, in6("::", 0));
    a = name_of(s);
    port = port_of(&a);
    listen(s, 1);
    t = socket(AF_INET, SOCK_STREAM, 0);
    RESULT("only: IPv4 connect", connect_to(t, in4("127.0.0.1", port)));
    close(t);
    t = socket(AF_INET, SOCK_STREAM, 0);
    RESULT("only: IPv4 bind of the same port", bind_to(t, in4("0.0.0.0", port)));
    close(t);
    t = socket(AF_INET6, SOCK_STREAM, 0);
    set_option(t, IPPROTO_IPV6, IPV6_V6ONLY, 1);
    RESULT("only: connect to a mapped address", connect_to(t, in6("::ffff:127.0.0.1", port)));
    RESULT("only: bind to a mapped address", bind_to(t, in6("::ffff:127.0.0.1", 0)));
    close(t);
    t = socket(AF_INET6, SOCK_STREAM, 0);
    address_t four = in4("127.0.0.1", port);
    RESULT("connect of an IPv6 socket to an IPv4 address", connect(t, &four.any, sizeof four.v6));
    close(t);
    t = socket(AF_INET6, SOCK_STREAM, 0);
    bind_to(t, in6("::1", 0));
    RESULT("bound to ::1, connect to IPv4", connect_to(t, in6("::ffff:127.0.0.1", port)));
    close(t);
    close(s);
}

int main(void) {
    signal(SIGPIPE, SIG_DFL);
    setvbuf(stdout, 0, _IOFBF, 1 << 16);
    only_loopback();
    creation();
    for (int i = 0; i < 2; i++) {
        names();
        connections();
        ends();
        data();
        urgent();
        options();
        family = AF_INET6, version = "v6";
    }
    dual();
    return 0;
}

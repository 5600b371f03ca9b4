// UDP on the loopback interface: names, datagrams, connected sockets, errors, groups, broadcast, control messages, options.
#include "net.h"
#include <linux/errqueue.h>
#include <netinet/udp.h>
#include <netinet/udp.h>

static int family = AF_INET;
static const char *version = "v4";
static address_t here(int port) { return family == AF_INET ? in4("127.0.0.1", port) : in6("::1", port); }
static address_t any(int port) { return family == AF_INET ? in4("0.0.0.0", port) : in6("::", port); }
static int udp(void) { return socket(family, SOCK_DGRAM, 0); }
static long send_to(int s, const char *text, address_t a) { return sendto(s, text, strlen(text), MSG_NOSIGNAL, &a.any, size_of(&a)); }

static int bound(address_t *at) {
    int s = udp();
    bind_to(s, here(0));
    *at = name_of(s);
    return s;
}

#define N(text) CASE("%s " text, version)

static void datagrams(void) {
    char buffer[70000];
    address_t a, b, from;
    socklen_t n;
    int s = bound(&a), t = udp(), k;
    from = name_of(t);
    show(N("name before bind"), "%s %d", text_of(&from), port_of(&from));
    EVENTS(N("new"), t);
    RESULT(N("send without a destination"), send(t, "x", 1, 0));
    RESULT(N("getpeername"), getpeername(t, &from.any, &(socklen_t){sizeof from}));
    RESULT(N("sendto"), send_to(t, "hello", a));
    b = name_of(t);
    show(N("name after sendto"), "%s %d", text_of(&b), port_of(&b) != 0);
    EVENTS(N("received"), s);
    RESULT(N("FIONREAD"), (ioctl(s, FIONREAD, &k), k));
    RESULT(N("peek"), recv(s, buffer, 2, MSG_PEEK));
    RESULT(N("peek, MSG_TRUNC"), recv(s, buffer, 2, MSG_PEEK | MSG_TRUNC));
    n = sizeof from;
    RESULT(N("recvfrom"), recvfrom(s, buffer, 100, 0, &from.any, &n));
    show(N("from"), "%s %d %d", text_of(&from), port_of(&from) == port_of(&b), n);
    RESULT(N("nothing more"), recv(s, buffer, 100, MSG_DONTWAIT));
    send_to(t, "long one", a);
    struct iovec v = {buffer, 4};
    struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1, .msg_name = &from, .msg_namelen = 4};
    RESULT(N("recvmsg into 4"), recvmsg(s, &m, 0));
    show(N("flags"), "%x %d", m.msg_flags, m.msg_namelen);
    RESULT(N("the rest is lost"), recv(s, buffer, 100, MSG_DONTWAIT));
    RESULT(N("send nothing"), send_to(t, "", a));
    EVENTS(N("an empty datagram"), s);
    RESULT(N("receive nothing"), recv(s, buffer, 100, MSG_DONTWAIT));
    static const int sizes[] = {65507, 65508, 65527, 65528, 65536, 100000};
    static char big[100000];
    for (unsigned i = 0; i < 6; i++) {
        RESULT(CASE("%s send %d", version, sizes[i]), sendto(t, big, sizes[i], 0, &a.any, size_of(&a)));
        RESULT(CASE("%s receive %d", version, sizes[i]), recv(s, buffer, sizeof buffer, MSG_DONTWAIT));
    }
    RESULT(N("to port 0"), send_to(t, "x", here(0)));
    RESULT(N("from a bad address"), sendto(t, (void *)8, 5, 0, &a.any, size_of(&a)));
    RESULT(N("a bad destination"), sendto(t, "x", 1, 0, (void *)8, 16));
    RESULT(N("a short destination"), sendto(t, "x", 1, 0, &a.any, 8));
    from = a;
    from.any.sa_family = AF_UNIX;
    RESULT(N("another family"), sendto(t, "x", 1, 0, &from.any, size_of(&a)));
    RESULT(N("MSG_OOB"), sendto(t, "x", 1, MSG_OOB, &a.any, size_of(&a)));
    RESULT(N("recv MSG_OOB"), recv(s, buffer, 1, MSG_OOB | MSG_DONTWAIT));
    RESULT(N("MSG_ERRQUEUE"), recv(s, buffer, 1, MSG_ERRQUEUE));
    RESULT(N("listen"), listen(s, 1));
    RESULT(N("accept"), accept(s, 0, 0));
    RESULT(N("shutdown unconnected"), shutdown(s, SHUT_RD));
    RESULT(N("recv after it"), recv(s, buffer, 1, MSG_DONTWAIT));
    close(s);
    // Who is connected.
    s = bound(&a);
    RESULT(N("connect"), connect_to(t, a));
    from = peer_of(t);
    show(N("peer"), "%s %d", text_of(&from), port_of(&from) == port_of(&a));
    RESULT(N("send"), send(t, "abc", 3, 0));
    b = name_of(t);
    RESULT(N("receive"), recv(s, buffer, 9, MSG_DONTWAIT));
    int u = udp();
    send_to(u, "stranger", b);
    RESULT(N("strangers are not heard"), recv(t, buffer, 9, MSG_DONTWAIT));
    send_to(s, "friend", b);
    RESULT(N("the peer is"), recv(t, buffer, 9, MSG_DONTWAIT));
    RESULT(N("sendto while connected"), send_to(t, "q", a));
    recv(s, buffer, 9, MSG_DONTWAIT);
    RESULT(N("connect elsewhere"), connect_to(t, b));
    RESULT(N("to itself"), send(t, "me", 2, 0));
    RESULT(N("heard"), recv(t, buffer, 9, MSG_DONTWAIT));
    RESULT(N("dissolve"), connect(t, &(struct sockaddr){AF_UNSPEC, ""}, sizeof(struct sockaddr)));
    RESULT(N("no peer"), getpeername(t, &from.any, &(socklen_t){sizeof from}));
    RESULT(N("no destination"), send(t, "x", 1, 0));
    static const char *hows[] = {"RD", "WR", "RDWR"};
    for (int how = 0; how < 3; how++) {
        int w = udp();
        connect_to(w, a);
        RESULT(CASE("%s shutdown %s", version, hows[how]), shutdown(w, how));
        EVENTS(CASE("%s after %s", version, hows[how]), w);
        RESULT(CASE("%s send after %s", version, hows[how]), send(w, "x", 1, MSG_NOSIGNAL));
        RESULT(CASE("%s recv after %s", version, hows[how]), recv(w, buffer, 9, MSG_DONTWAIT));
        close(w);
    }
    close(u);
    close(s);
    // Nobody there.
    RESULT(N("unconnected to nobody"), send_to(t, "x", a));
    RESULT(N("no error comes"), recv(t, buffer, 9, MSG_DONTWAIT));
    connect_to(t, a);
    RESULT(N("connected to nobody"), send(t, "x", 1, 0));
    usleep(1000);
    EVENTS(N("refused"), t);
    RESULT(N("recv tells"), recv(t, buffer, 9, MSG_DONTWAIT));
    RESULT(N("once"), recv(t, buffer, 9, MSG_DONTWAIT));
    send(t, "x", 1, 0);
    usleep(1000);
    RESULT(N("send tells"), send(t, "x", 1, 0));
    usleep(1000);
    RESULT(N("or not"), send(t, "x", 1, 0));
    usleep(1000);
    show(N("SO_ERROR"), "%d", option(t, SOL_SOCKET, SO_ERROR));
    close(t);
    receive_timeout(s = bound(&a), 20);
    RESULT(N("SO_RCVTIMEO"), recv(s, buffer, 9, 0));
    // A full buffer drops.
    set_option(s, SOL_SOCKET, SO_RCVBUF, 10000);
    t = udp();
    for (k = 0; k < 100; k++)
        sendto(t, big, 5000, 0, &a.any, size_of(&a));
    int got = 0;
    while (recv(s, buffer, sizeof buffer, MSG_DONTWAIT) > 0)
        got++;
    show(N("dropped"), "%d", got > 0 && got < 20);
    close(s);
    close(t);
}

static void names(void) {
    address_t a;
    int s = bound(&a), t = udp();
    RESULT(N("bind the same"), bind_to(t, a));
    RESULT(N("bind the wildcard"), bind_to(t, any(port_of(&a))));
    set_option(t, SOL_SOCKET, SO_REUSEADDR, 1);
    RESULT(N("one has SO_REUSEADDR"), bind_to(t, a));
    set_option(s, SOL_SOCKET, SO_REUSEADDR, 1);
    RESULT(N("both have"), bind_to(t, a));
    RESULT(N("bind twice"), bind_to(t, here(0)));
    close(s);
    close(t);
    s = udp(), t = udp();
    set_option(s, SOL_SOCKET, SO_REUSEPORT, 1);
    bind_to(s, here(0));
    a = name_of(s);
    RESULT(N("one has SO_REUSEPORT"), bind_to(t, a));
    set_option(t, SOL_SOCKET, SO_REUSEPORT, 1);
    RESULT(N("both have SO_REUSEPORT"), bind_to(t, a));
    close(s);
    close(t);
    static const struct {
        const char *v4, *v6;
    } where[] = {{"127.0.0.2", "::2"}, {"10.1.2.3", "2001:db8::1"}, {"255.255.255.255", "ff0e::1"}, {"224.0.0.1", "::ffff:127.0.0.1"}, {"127.255.255.255", "::"}};
    for (unsigned i = 0; i < 5; i++) {
        s = udp();
        RESULT(CASE("%s bind to %s", version, family == AF_INET ? where[i].v4 : where[i].v6),
               bind_to(s, family == AF_INET ? in4(where[i].v4, 0) : in6(where[i].v6, 0)));
        close(s);
    }
    static const struct {
        const char *v4, *v6;
    } far[] = {{"10.1.2.3", "2001:db8::1"}, {"8.8.8.8", "2606:4700:4700::1111"}, {"224.0.0.5", "ff0e::5"}};
    for (unsigned i = 0; i < 3; i++) {
        s = udp();
        RESULT(CASE("%s send to %s", version, family == AF_INET ? far[i].v4 : far[i].v6),
               send_to(s, "x", family == AF_INET ? in4(far[i].v4, 9) : in6(far[i].v6, 9)));
        RESULT(CASE("%s connect to %s", version, family == AF_INET ? far[i].v4 : far[i].v6),
               connect_to(s, family == AF_INET ? in4(far[i].v4, 9) : in6(far[i].v6, 9)));
        close(s);
    }
}

// What the control messages of a datagram say.
static void controls(const char *name, int s) {
    char buffer[64], control[256], line[512] = "";
    struct iovec v = {buffer, sizeof buffer};
    struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    long n = recvmsg(s, &m, MSG_DONTWAIT);
    for (struct cmsghdr *c = CMSG_FIRSTHDR(&m); n >= 0 && c; c = CMSG_NXTHDR(&m, c)) {
        int value = 0, len = c->cmsg_len - CMSG_LEN(0);
        memcpy(&value, CMSG_DATA(c), len < 4 ? len : 4);
        if (c->cmsg_level == SOL_SOCKET)
            value = 0; // a time
        snprintf(line + strlen(line), 100, "[%d %d %d: %d]", c->cmsg_level, c->cmsg_type, len, value);
        if (c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_PKTINFO) {
            struct in_pktinfo *p = (void *)CMSG_DATA(c);
            address_t x = in4("0.0.0.0", 0), y = x;
            x.v4.sin_addr = p->ipi_spec_dst, y.v4.sin_addr = p->ipi_addr;
            snprintf(line + strlen(line), 100, "(%s %s)", text_of(&x), text_of(&y));
        }
    }
    show(name, "%ld flags %x %s", n, m.msg_flags, line);
}

static void control_messages(void) {
    address_t a;
    int s = bound(&a), t = udp();
    static const struct {
        int level, name;
        const char *text;
    } all[] = {{SOL_SOCKET, SO_TIMESTAMP, "SO_TIMESTAMP"},       {SOL_SOCKET, SO_TIMESTAMPNS, "SO_TIMESTAMPNS"},
               {IPPROTO_IP, IP_PKTINFO, "IP_PKTINFO"},           {IPPROTO_IP, IP_RECVTTL, "IP_RECVTTL"},
               {IPPROTO_IP, IP_RECVTOS, "IP_RECVTOS"},           {IPPROTO_IPV6, IPV6_RECVPKTINFO, "IPV6_RECVPKTINFO"},
               {IPPROTO_IPV6, IPV6_RECVHOPLIMIT, "IPV6_RECVHOPLIMIT"}, {IPPROTO_IPV6, IPV6_RECVTCLASS, "IPV6_RECVTCLASS"}};
    for (unsigned i = 0; i < sizeof all / sizeof *all; i++) {
        RESULT(CASE("%s %s", version, all[i].text), set_option(s, all[i].level, all[i].name, 1));
        send_to(t, "x", a);
        controls(CASE("%s with %s", version, all[i].text), s);
        set_option(s, all[i].level, all[i].name, 0);
    }
    set_option(t, IPPROTO_IP, IP_TTL, 7);
    set_option(t, IPPROTO_IP, IP_TOS, 16);
    set_option(t, IPPROTO_IPV6, IPV6_UNICAST_HOPS, 9);
    set_option(t, IPPROTO_IPV6, IPV6_TCLASS, 32);
    for (unsigned i = 2; i < sizeof all / sizeof *all; i++)
        set_option(s, all[i].level, all[i].name, 1);
    send_to(t, "x", a);
    controls(N("sender's own values"), s);
    static const struct {
        int level, type, value, len;
    } sent[] = {{IPPROTO_IP, IP_TTL, 33, 4},   {IPPROTO_IP, IP_TTL, 0, 4},           {IPPROTO_IP, IP_TTL, 256, 4},        {IPPROTO_IP, IP_TOS, 8, 4},
                {IPPROTO_IP, IP_TOS, 8, 1},    {IPPROTO_IP, 77, 1, 4},               {IPPROTO_IPV6, IPV6_HOPLIMIT, 5, 4}, {IPPROTO_IPV6, IPV6_TCLASS, 12, 4},
                {SOL_SOCKET, SCM_RIGHTS, 0, 4}, {SOL_SOCKET, 99, 0, 4}};
    for (unsigned i = 0; i < sizeof sent / sizeof *sent; i++) {
        if (family == AF_INET && sent[i].level == IPPROTO_IPV6)
            continue;
        if (family == AF_INET6 && sent[i].level == IPPROTO_IP)
            continue;
        char control[64] = {0};
        struct iovec v = {"x", 1};
        struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1, .msg_name = &a, .msg_namelen = size_of(&a), .msg_control = control,
                           .msg_controllen = CMSG_SPACE(sent[i].len)};
        struct cmsghdr *c = CMSG_FIRSTHDR(&m);
        *c = (struct cmsghdr){.cmsg_len = CMSG_LEN(sent[i].len), .cmsg_level = sent[i].level, .cmsg_type = sent[i].type};
        memcpy(CMSG_DATA(c), &sent[i].value, sent[i].len);
        RESULT(CASE("%s send with %d %d %d", version, sent[i].level, sent[i].type, sent[i].value), sendmsg(t, &m, 0));
        controls(CASE("%s seen %d", version, i), s);
    }
    close(s);
    close(t);
}

static void groups(void) {
    int s = socket(AF_INET, SOCK_DGRAM, 0), t = socket(AF_INET, SOCK_DGRAM, 0), u = socket(AF_INET, SOCK_DGRAM, 0);
    char buffer[16];
    set_option(s, SOL_SOCKET, SO_REUSEADDR, 1);
    set_option(u, SOL_SOCKET, SO_REUSEADDR, 1);
    bind_to(s, in4("0.0.0.0", 0));
    address_t a = name_of(s), group = in4("239.1.2.3", port_of(&a));
    bind_to(u, a);
    struct ip_mreq r = {{inet_addr("239.1.2.3")}, {inet_addr("127.0.0.1")}}, none = {{inet_addr("239.1.2.3")}, {0}},
                   bad = {{inet_addr("10.0.0.1")}, {inet_addr("127.0.0.1")}}, other = {{inet_addr("239.1.2.3")}, {inet_addr("10.9.8.7")}};
    RESULT("leave a group it is not in", setsockopt(s, IPPROTO_IP, IP_DROP_MEMBERSHIP, &r, sizeof r));
    RESULT("join without an interface", setsockopt(s, IPPROTO_IP, IP_ADD_MEMBERSHIP, &none, sizeof none));
    RESULT("join what is no group", setsockopt(s, IPPROTO_IP, IP_ADD_MEMBERSHIP, &bad, sizeof bad));
    RESULT("join on no interface", setsockopt(s, IPPROTO_IP, IP_ADD_MEMBERSHIP, &other, sizeof other));
    RESULT("join, short", setsockopt(s, IPPROTO_IP, IP_ADD_MEMBERSHIP, &r, 4));
    RESULT("send without a route", send_to(t, "x", group));
    RESULT("IP_MULTICAST_IF", setsockopt(t, IPPROTO_IP, IP_MULTICAST_IF, &r.imr_interface, 4));
    RESULT("IP_MULTICAST_IF of none", setsockopt(t, IPPROTO_IP, IP_MULTICAST_IF, &other.imr_interface, 4));
    RESULT("send, nobody joined", send_to(t, "x", group));
    RESULT("not heard", recv(s, buffer, 16, MSG_DONTWAIT));
    RESULT("join", setsockopt(s, IPPROTO_IP, IP_ADD_MEMBERSHIP, &r, sizeof r));
    RESULT("join again", setsockopt(s, IPPROTO_IP, IP_ADD_MEMBERSHIP, &r, sizeof r));
    RESULT("send", send_to(t, "group", group));
    RESULT("heard", recv(s, buffer, 16, MSG_DONTWAIT));
    RESULT("by the other too", recv(u, buffer, 16, MSG_DONTWAIT));
    set_option(u, IPPROTO_IP, IP_MULTICAST_ALL, 0);
    send_to(t, "group", group);
    RESULT("still heard", recv(s, buffer, 16, MSG_DONTWAIT));
    RESULT("not without IP_MULTICAST_ALL", recv(u, buffer, 16, MSG_DONTWAIT));
    set_option(t, IPPROTO_IP, IP_MULTICAST_LOOP, 0);
    show("IP_MULTICAST_LOOP", "%d", option(t, IPPROTO_IP, IP_MULTICAST_LOOP));
    RESULT("leave", setsockopt(s, IPPROTO_IP, IP_DROP_MEMBERSHIP, &r, sizeof r));
    send_to(t, "group", group);
    RESULT("no more", recv(s, buffer, 16, MSG_DONTWAIT));
    static const int ttls[] = {0, 1, 255, 256, -1};
    for (int i = 0; i < 5; i++) {
        RESULT(CASE("IP_MULTICAST_TTL %d", ttls[i]), set_option(t, IPPROTO_IP, IP_MULTICAST_TTL, ttls[i]));
        show(CASE("its value %d", i), "%d", option(t, IPPROTO_IP, IP_MULTICAST_TTL));
    }
    RESULT("broadcast without SO_BROADCAST", send_to(t, "b", in4("127.255.255.255", port_of(&a))));
    set_option(t, SOL_SOCKET, SO_BROADCAST, 1);
    RESULT("broadcast", send_to(t, "b", in4("127.255.255.255", port_of(&a))));
    RESULT("all hear it", recv(s, buffer, 16, MSG_DONTWAIT) + recv(u, buffer, 16, MSG_DONTWAIT));
    close(s);
    close(t);
    close(u);
    s = socket(AF_INET6, SOCK_DGRAM, 0), t = socket(AF_INET6, SOCK_DGRAM, 0);
    bind_to(s, in6("::", 0));
    a = name_of(s), group = in6("ff0e::1:2", port_of(&a));
    struct ipv6_mreq six = {group.v6.sin6_addr, 1};
    RESULT("v6 join", setsockopt(s, IPPROTO_IPV6, IPV6_JOIN_GROUP, &six, sizeof six));
    RESULT("v6 join again", setsockopt(s, IPPROTO_IPV6, IPV6_JOIN_GROUP, &six, sizeof six));
    RESULT("v6 IPV6_MULTICAST_IF", set_option(t, IPPROTO_IPV6, IPV6_MULTICAST_IF, 1));
    RESULT("v6 IPV6_MULTICAST_IF of none", set_option(t, IPPROTO_IPV6, IPV6_MULTICAST_IF, 77));
    RESULT("v6 send", send_to(t, "six", group));
    RESULT("v6 heard", recv(s, buffer, 16, MSG_DONTWAIT));
    RESULT("v6 leave", setsockopt(s, IPPROTO_IPV6, IPV6_LEAVE_GROUP, &six, sizeof six));
    RESULT("v6 leave again", setsockopt(s, IPPROTO_IPV6, IPV6_LEAVE_GROUP, &six, sizeof six));
    six.ipv6mr_interface = 77;
    RESULT("v6 join on no interface", setsockopt(s, IPPROTO_IPV6, IPV6_JOIN_GROUP, &six, sizeof six));
    close(s);
    close(t);
}

static void dual(void) {
    int s = socket(AF_INET6, SOCK_DGRAM, 0), t = socket(AF_INET, SOCK_DGRAM, 0), u;
    char buffer[16];
    bind_to(s, in6("::", 0));
    address_t a = name_of(s), from;
    int port = port_of(&a);
    RESULT("dual: from IPv4", send_to(t, "four", in4("127.0.0.1", port)));
    socklen_t n = sizeof from;
    RESULT("dual: heard", recvfrom(s, buffer, 16, MSG_DONTWAIT, &from.any, &n));
    show("dual: from", "%s %d", text_of(&from), n);
    RESULT("dual: answer to the mapped address", sendto(s, "back", 4, 0, &from.any, n));
    RESULT("dual: heard back", recv(t, buffer, 16, MSG_DONTWAIT));
    u = socket(AF_INET6, SOCK_DGRAM, 0);
    RESULT("dual: sendto an IPv4 address", send_to(u, "four", in4("127.0.0.1", port)));
    set_option(u, IPPROTO_IPV6, IPV6_V6ONLY, 1);
    close(u);
    u = socket(AF_INET6, SOCK_DGRAM, 0);
    set_option(u, IPPROTO_IPV6, IPV6_V6ONLY, 1);
    RESULT("only: sendto a mapped address", send_to(u, "x", in6("::ffff:127.0.0.1", port)));
    RESULT("only: sendto an IPv4 address", send_to(u, "x", in4("127.0.0.1", port)));
    close(u);
    RESULT("IPv4 to an IPv6 address", send_to(t, "x", in6("::1", port)));
    close(s);
    close(t);
}

#ifndef SOL_UDPLITE
#define SOL_UDPLITE 136
#define UDPLITE_SEND_CSCOV 10
#define UDPLITE_RECV_CSCOV 11
#endif

static address_t home(int v6, int port) { return v6 ? in6("::1", port) : in4("127.0.0.1", port); }

static long send_bytes(int s, address_t to, const char *text) { return sendto(s, text, strlen(text), 0, &to.any, size_of(&to)); }

// UDP-Lite: ports of its own, and checksums that cover a part (udplite(7)).
static void lite(void) {
    char buffer[64];
    for (int v6 = 0; v6 < 2; v6++) {
        int f = v6 ? AF_INET6 : AF_INET;
        int a = socket(f, SOCK_DGRAM, IPPROTO_UDPLITE), b = socket(f, SOCK_DGRAM, IPPROTO_UDPLITE), u = socket(f, SOCK_DGRAM, 0);
        works_of(CASE("lite %d: socket", v6), a);
        show(CASE("lite %d: protocol", v6), "%d type %d", option(a, SOL_SOCKET, SO_PROTOCOL), option(a, SOL_SOCKET, SO_TYPE));
        RESULT(CASE("lite %d: bind", v6), bind_to(a, home(v6, 0)));
        address_t n = name_of(a);
        int port = port_of(&n);
        RESULT(CASE("lite %d: the same port of UDP", v6), bind_to(u, home(v6, port)));
        RESULT(CASE("lite %d: the same port of UDP-Lite", v6), bind_to(b, home(v6, port)));
        RESULT(CASE("lite %d: UDP sends to itself", v6), send_bytes(u, home(v6, port), "to UDP"));
        RESULT(CASE("lite %d: not heard", v6), recv(a, buffer, 64, MSG_DONTWAIT));
        RESULT(CASE("lite %d: heard by UDP", v6), recv(u, buffer, 64, MSG_DONTWAIT));
        RESULT(CASE("lite %d: send", v6), send_bytes(b, home(v6, port), "to lite"));
        address_t from = {0};
        socklen_t len = sizeof from;
        RESULT(CASE("lite %d: heard", v6), recvfrom(a, buffer, 64, MSG_DONTWAIT, &from.any, &len));
        n = name_of(b);
        show(CASE("lite %d: from", v6), "%s %d", text_of(&from), port_of(&from) == port_of(&n));
        RESULT(CASE("lite %d: not by UDP", v6), recv(u, buffer, 64, MSG_DONTWAIT));
        static const int values[] = {-1, 0, 1, 7, 8, 9, 20, 65535, 65536, 1 << 20};
        for (unsigned i = 0; i < sizeof values / sizeof *values; i++)
            for (int name = UDPLITE_SEND_CSCOV; name <= UDPLITE_RECV_CSCOV; name++) {
                RESULT(CASE("lite %d: option %d to %d", v6, name, values[i]), set_option(b, SOL_UDPLITE, name, values[i]));
                show(CASE("lite %d: option %d after %d", v6, name, values[i]), "%d", option(b, SOL_UDPLITE, name));
            }
        RESULT(CASE("lite %d: option of UDP", v6), set_option(u, SOL_UDPLITE, UDPLITE_SEND_CSCOV, 8));
        show(CASE("lite %d: its value", v6), "%d", option(u, SOL_UDPLITE, UDPLITE_SEND_CSCOV));
        RESULT(CASE("lite %d: UDP_CORK", v6), set_option(b, SOL_UDP, 1, 0));
        RESULT(CASE("lite %d: an option of neither", v6), set_option(b, SOL_UDPLITE, 77, 0));
        // What the sender covers, and what the receiver asks for, of 20 bytes with a header of 8.
        static const int sends[] = {0, 8, 18, 27, 28, 29}, takes[] = {-1, 0, 8, 18, 28, 40};
        for (int i = 0; i < 6; i++)
            for (int k = 0; k < 6; k++) {
                int r = socket(f, SOCK_DGRAM, IPPROTO_UDPLITE), s = socket(f, SOCK_DGRAM, IPPROTO_UDPLITE);
                bind_to(r, home(v6, 0));
                n = name_of(r);
                if (takes[k] >= 0)
                    set_option(r, SOL_UDPLITE, UDPLITE_RECV_CSCOV, takes[k]);
                set_option(s, SOL_UDPLITE, UDPLITE_SEND_CSCOV, sends[i]);
                send_bytes(s, home(v6, port_of(&n)), "twenty bytes of text");
                RESULT(CASE("lite %d: covers %d, wants %d", v6, sends[i], takes[k]), recv(r, buffer, 64, MSG_DONTWAIT));
                close(r);
                close(s);
            }
        close(a);
        close(b);
        close(u);
    }
}

// The oldest error of a socket.
static void error_of(const char *name, int s, size_t room) {
    char data[2000], control[512];
    address_t to = {0};
    struct iovec v = {data, room};
    struct msghdr m = {.msg_name = &to, .msg_namelen = sizeof to, .msg_iov = &v, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    long n = recvmsg(s, &m, MSG_ERRQUEUE);
    if (n < 0) {
        show(name, "-1 %s", strerrorname_np(errno));
        return;
    }
    char line[512];
    int at = snprintf(line, sizeof line, "%ld bytes, flags %x, to %s", n, m.msg_flags, text_of(&to));
    for (struct cmsghdr *c = CMSG_FIRSTHDR(&m); c; c = CMSG_NXTHDR(&m, c)) {
        struct {
            struct sock_extended_err ee;
            address_t from;
        } e = {0};
        memcpy(&e, CMSG_DATA(c), c->cmsg_len - CMSG_LEN(0) < sizeof e ? c->cmsg_len - CMSG_LEN(0) : sizeof e);
        at += snprintf(line + at, sizeof line - at, "; %d %d %zu: %s origin %d type %d code %d info %d data %d from %s", c->cmsg_level, c->cmsg_type, c->cmsg_len,
                       strerrorname_np(e.ee.ee_errno), e.ee.ee_origin, e.ee.ee_type, e.ee.ee_code, e.ee.ee_info, e.ee.ee_data, text_of(&e.from));
    }
    show(name, "%s", line);
}

// IP_RECVERR: what comes back for datagrams that nobody takes.
static void errors(void) {
    static char large[60000];
    for (int v6 = 0; v6 < 2; v6++)
        for (int keeps = 0; keeps < 2; keeps++)
            for (int connected = 0; connected < 2; connected++) {
                int f = v6 ? AF_INET6 : AF_INET, level = v6 ? IPPROTO_IPV6 : IPPROTO_IP, name = v6 ? IPV6_RECVERR : IP_RECVERR;
                const char *t = CASE("errors %d, kept %d, connected %d", v6, keeps, connected);
                char what[64];
                strcpy(what, t);
                int free_port = socket(f, SOCK_DGRAM, 0), s = socket(f, SOCK_DGRAM, 0);
                bind_to(free_port, home(v6, 0));
                address_t n = name_of(free_port), to = home(v6, port_of(&n));
                close(free_port);
                RESULT(CASE("%s: option", what), set_option(s, level, name, keeps));
                if (connected)
                    connect_to(s, to);
                error_of(CASE("%s: none", what), s, 100);
                RESULT(CASE("%s: send", what), sendto(s, "hello", 5, 0, &to.any, size_of(&to)));
                EVENTS(CASE("%s: events", what), s);
                error_of(CASE("%s: error", what), s, 3);
                EVENTS(CASE("%s: events after", what), s);
                show(CASE("%s: SO_ERROR", what), "%d", option(s, SOL_SOCKET, SO_ERROR));
                for (int i = 0; i < 3; i++)
                    RESULT(CASE("%s: send %d", what, i), sendto(s, large, 100 + i * 29000, 0, &to.any, size_of(&to)));
                RESULT(CASE("%s: receive", what), recv(s, large, 10, MSG_DONTWAIT));
                for (int i = 0; i < 4; i++) {
                    error_of(CASE("%s: error %d", what, i), s, 1500);
                    show(CASE("%s: SO_ERROR %d", what, i), "%d", option(s, SOL_SOCKET, SO_ERROR));
                }
                RESULT(CASE("%s: once more", what), sendto(s, "again", 5, 0, &to.any, size_of(&to)));
                set_option(s, level, name, 0);
                EVENTS(CASE("%s: switched off", what), s);
                error_of(CASE("%s: then", what), s, 100);
                RESULT(CASE("%s: shut", what), shutdown(s, SHUT_RD));
                close(s);
            }
    // A datagram to oneself after shutdown(2).
    int s = socket(AF_INET, SOCK_DGRAM, 0);
    bind_to(s, home(0, 0));
    connect_to(s, name_of(s));
    RESULT("shut for reading", shutdown(s, SHUT_RD));
    RESULT("send to oneself", send(s, "self", 4, 0));
    int bytes = -1;
    RESULT("FIONREAD", ioctl(s, FIONREAD, &bytes));
    show("bytes", "%d", bytes);
    RESULT("heard all the same", recv(s, large, 10, MSG_DONTWAIT));
    RESULT("and no more", recv(s, large, 10, MSG_DONTWAIT));
    close(s);
    // Addresses of another family.
    static const int families[] = {AF_INET, AF_INET6};
    for (int i = 0; i < 2; i++)
        for (int type = SOCK_STREAM; type <= SOCK_DGRAM; type++)
            for (int bound = 0; bound < 3; bound++) {
                s = socket(families[i], type, 0);
                if (bound)
                    bind_to(s, bound == 1 ? home(i, 0) : i ? in6("::", 0) : in4("0.0.0.0", 0));
                const char *what = CASE("family %d type %d bound %d", families[i], type, bound);
                struct sockaddr_un un = {AF_UNIX, "a name that is long enough"};
                RESULT(CASE("%s: connect AF_UNIX", what), connect(s, (void *)&un, sizeof un));
                if (type == SOCK_DGRAM) {
                    address_t other = home(!i, 9);
                    RESULT(CASE("%s: connect the other one", what), connect_to(s, other));
                }
                close(s);
            }
    // A connection to oneself.
    s = socket(AF_INET, SOCK_STREAM, 0);
    bind_to(s, home(0, 0));
    RESULT("a socket connects to itself", connect_to(s, name_of(s)));
    address_t self = name_of(s), peer = peer_of(s);
    show("its peer", "%d", memcmp(&self, &peer, sizeof self.v4));
    RESULT("it sends", send(s, "echo", 4, 0));
    RESULT("it hears", recv(s, large, 10, MSG_DONTWAIT));
    EVENTS("idle", s);
    RESULT("shut for writing", shutdown(s, SHUT_WR));
    RESULT("the end", recv(s, large, 10, 0));
    close(s);
    s = socket(AF_INET, SOCK_STREAM, 0);
    bind_to(s, home(0, 0));
    listen(s, 1);
    struct sockaddr_un un = {AF_UNIX, "a name that is long enough"};
    RESULT("a listener connects to another family", connect(s, (void *)&un, sizeof un));
    close(s);
}

int main(void) {
    setvbuf(stdout, 0, _IOFBF, 1 << 16);
    only_loopback();
    for (int i = 0; i < 2; i++) {
        datagrams();
        names();
        control_messages();
        family = AF_INET6, version = "v6";
    }
    groups();
    dual();
    lite();
    errors();
    return 0;
}

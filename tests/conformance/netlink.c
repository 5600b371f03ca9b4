// NETLINK_ROUTE and the ioctls on interfaces, where there is nothing but the loopback interface; what libc makes of them.
#include "net.h"
#include <ifaddrs.h>
#include <linux/genetlink.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <linux/taskstats.h>
#include <netdb.h>

static void sockets(void) {
    static const struct {
        int type, protocol;
    } cases[] = {{SOCK_RAW, NETLINK_ROUTE}, {SOCK_DGRAM, NETLINK_ROUTE}, {SOCK_STREAM, NETLINK_ROUTE}, {SOCK_SEQPACKET, NETLINK_ROUTE}, {SOCK_RAW, 31}, {SOCK_RAW, 32}, {SOCK_RAW, -1}};
    for (unsigned i = 0; i < sizeof cases / sizeof *cases; i++) {
        int s = socket(AF_NETLINK, cases[i].type, cases[i].protocol);
        works_of(CASE("socket %d %d", cases[i].type, cases[i].protocol), s);
        if (s >= 0)
            show(CASE("case %d", i), "%d %d", option(s, SOL_SOCKET, SO_DOMAIN), option(s, SOL_SOCKET, SO_TYPE));
        close(s);
    }
    int p[2], s = socket(AF_NETLINK, SOCK_RAW, 0), t = socket(AF_NETLINK, SOCK_RAW, 0);
    RESULT("socketpair", socketpair(AF_NETLINK, SOCK_RAW, 0, p));
    struct sockaddr_nl a = {.nl_family = AF_NETLINK};
    socklen_t n = sizeof a;
    RESULT("name before bind", getsockname(s, (void *)&a, &n));
    show("is", "%d %d %d", a.nl_family, a.nl_pid, n);
    RESULT("bind", bind(s, (void *)&a, sizeof a));
    getsockname(s, (void *)&a, &n);
    show("port is the pid", "%d", a.nl_pid == (unsigned)getpid());
    RESULT("another takes the same", bind(t, (void *)&a, sizeof a));
    a.nl_pid = 0;
    RESULT("another takes any", bind(t, (void *)&a, sizeof a));
    getsockname(t, (void *)&a, &n);
    show("another port", "%d", a.nl_pid != (unsigned)getpid());
    RESULT("bind, short", bind(t, (void *)&a, 4));
    a.nl_family = AF_INET;
    RESULT("bind, another family", bind(t, (void *)&a, sizeof a));
    RESULT("listen", listen(s, 1));
    RESULT("accept", accept(s, 0, 0));
    RESULT("shutdown", shutdown(s, SHUT_RD));
    EVENTS("new", s);
    char buffer[64];
    RESULT("nothing to receive", recv(s, buffer, 64, MSG_DONTWAIT));
    close(s);
    close(t);
}

static int compare(const void *a, const void *b) { return strcmp(*(char **)a, *(char **)b); }

// Sends a request and prints what comes, with its attributes in a fixed selection.
static void ask(const char *name, int type, int flags, const void *body, int length) {
    struct {
        struct nlmsghdr h;
        char body[256];
    } request = {.h = {.nlmsg_len = NLMSG_LENGTH(length), .nlmsg_type = type, .nlmsg_flags = flags, .nlmsg_seq = 7}};
    memcpy(request.body, body, length);
    int s = socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE);
    struct timeval tv = {0, 300000};
    setsockopt(s, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv);
    show(CASE("%s: sent", name), "%d", (int)(send(s, &request, request.h.nlmsg_len, 0) - (long)request.h.nlmsg_len));
    char *lines[64];
    int count = 0, done = 0, single = !(flags & NLM_F_DUMP);
    while (!done && count < 60) {
        static char buffer[65536];
        struct sockaddr_nl from;
        socklen_t n = sizeof from;
        long got = recvfrom(s, buffer, sizeof buffer, 0, (void *)&from, &n);
        if (got < 0)
            break;
        for (struct nlmsghdr *h = (void *)buffer; NLMSG_OK(h, got); h = NLMSG_NEXT(h, got)) {
            char line[512];
            int at = snprintf(line, sizeof line, "type %d seq %d kernel %d", h->nlmsg_type, h->nlmsg_seq, from.nl_pid == 0 && n == sizeof from);
            if (h->nlmsg_type == NLMSG_ERROR)
                at += snprintf(line + at, sizeof line - at, " error %d", ((struct nlmsgerr *)NLMSG_DATA(h))->error);
            if (h->nlmsg_type == RTM_NEWLINK) {
                struct ifinfomsg *i = NLMSG_DATA(h);
                at += snprintf(line + at, sizeof line - at, " hw %d index %d flags %x", i->ifi_type, i->ifi_index, i->ifi_flags & 0xffff);
                int left = h->nlmsg_len - NLMSG_LENGTH(sizeof *i);
                for (struct rtattr *r = IFLA_RTA(i); RTA_OK(r, left); r = RTA_NEXT(r, left))
                    if (r->rta_type == IFLA_IFNAME || r->rta_type == IFLA_QDISC)
                        at += snprintf(line + at, sizeof line - at, " %d=%s", r->rta_type, (char *)RTA_DATA(r));
                    else if (r->rta_type == IFLA_MTU || r->rta_type == IFLA_TXQLEN)
                        at += snprintf(line + at, sizeof line - at, " %d=%d", r->rta_type, *(int *)RTA_DATA(r));
                    else if (r->rta_type == IFLA_ADDRESS || r->rta_type == IFLA_STATS64)
                        at += snprintf(line + at, sizeof line - at, " %d", r->rta_type);
            }
            if (h->nlmsg_type == RTM_NEWADDR) {
                struct ifaddrmsg *i = NLMSG_DATA(h);
                at += snprintf(line + at, sizeof line - at, " family %d /%d scope %d index %d", i->ifa_family, i->ifa_prefixlen, i->ifa_scope, i->ifa_index);
                int left = h->nlmsg_len - NLMSG_LENGTH(sizeof *i);
                for (struct rtattr *r = IFA_RTA(i); RTA_OK(r, left); r = RTA_NEXT(r, left)) {
                    char text[64];
                    if (r->rta_type == IFA_ADDRESS || r->rta_type == IFA_LOCAL)
                        at += snprintf(line + at, sizeof line - at, " %d=%s", r->rta_type, inet_ntop(i->ifa_family, RTA_DATA(r), text, sizeof text));
                    if (r->rta_type == IFA_LABEL)
                        at += snprintf(line + at, sizeof line - at, " label %s", (char *)RTA_DATA(r));
                }
            }
            if (h->nlmsg_type == RTM_NEWROUTE) {
                struct rtmsg *i = NLMSG_DATA(h);
                at += snprintf(line + at, sizeof line - at, " family %d /%d table %d scope %d type %d", i->rtm_family, i->rtm_dst_len, i->rtm_table, i->rtm_scope, i->rtm_type);
                int left = h->nlmsg_len - NLMSG_LENGTH(sizeof *i);
                for (struct rtattr *r = RTM_RTA(i); RTA_OK(r, left); r = RTA_NEXT(r, left)) {
                    char text[64];
                    if (r->rta_type == RTA_DST)
                        at += snprintf(line + at, sizeof line - at, " to %s", inet_ntop(i->rtm_family, RTA_DATA(r), text, sizeof text));
                    if (r->rta_type == RTA_OIF)
                        at += snprintf(line + at, sizeof line - at, " by %d", *(int *)RTA_DATA(r));
                }
            }
            lines[count++] = strdup(line);
            done |= h->nlmsg_type == NLMSG_DONE || h->nlmsg_type == NLMSG_ERROR || (single && !(flags & NLM_F_ACK));
        }
    }
    qsort(lines, count, sizeof *lines, compare);
    for (int i = 0; i < count; i++) {
        show(CASE("%s: %d", name, i), "%s", lines[i]);
        free(lines[i]);
    }
    show(CASE("%s: messages", name), "%d", count);
    close(s);
}

static void requests(void) {
    struct ifinfomsg link = {0};
    struct ifaddrmsg addr = {0};
    struct rtmsg route = {0};
    int dump = NLM_F_REQUEST | NLM_F_DUMP;
    ask("links", RTM_GETLINK, dump, &link, sizeof link);
    ask("addresses", RTM_GETADDR, dump, &addr, sizeof addr);
    addr.ifa_family = AF_INET;
    ask("IPv4 addresses", RTM_GETADDR, dump, &addr, sizeof addr);
    addr.ifa_family = AF_INET6;
    ask("IPv6 addresses", RTM_GETADDR, dump, &addr, sizeof addr);
    route.rtm_family = AF_INET;
    ask("IPv4 routes", RTM_GETROUTE, dump, &route, sizeof route);
    ask("neighbours", RTM_GETNEIGH, dump, &link, sizeof link);
    link.ifi_index = 1;
    ask("link 1", RTM_GETLINK, NLM_F_REQUEST, &link, sizeof link);
    link.ifi_index = 77;
    ask("link 77", RTM_GETLINK, NLM_F_REQUEST, &link, sizeof link);
    link.ifi_index = 0;
    ask("no link", RTM_GETLINK, NLM_F_REQUEST, &link, sizeof link);
    ask("no request", RTM_GETLINK, 0, &link, sizeof link);
    ask("acknowledged", NLMSG_NOOP, NLM_F_REQUEST | NLM_F_ACK, &link, sizeof link);
    ask("beyond the last", 200, NLM_F_REQUEST, &link, sizeof link);
}

static void ioctls(void) {
    static const struct {
        unsigned long request;
        const char *name;
    } all[] = {{SIOCGIFFLAGS, "SIOCGIFFLAGS"},   {SIOCGIFADDR, "SIOCGIFADDR"},     {SIOCGIFNETMASK, "SIOCGIFNETMASK"},
               {SIOCGIFBRDADDR, "SIOCGIFBRDADDR"}, {SIOCGIFDSTADDR, "SIOCGIFDSTADDR"}, {SIOCGIFMTU, "SIOCGIFMTU"},
               {SIOCGIFINDEX, "SIOCGIFINDEX"},   {SIOCGIFMETRIC, "SIOCGIFMETRIC"}, {SIOCGIFHWADDR, "SIOCGIFHWADDR"},
               {SIOCGIFTXQLEN, "SIOCGIFTXQLEN"}};
    int s = socket(AF_INET, SOCK_DGRAM, 0);
    for (unsigned i = 0; i < sizeof all / sizeof *all; i++) {
        struct ifreq r = {.ifr_name = "lo"}, none = {.ifr_name = "eth77"};
        RESULT(all[i].name, ioctl(s, all[i].request, &r));
        unsigned char *b = (void *)&r.ifr_ifru;
        show(CASE("%s value", all[i].name), "%x %x %x %x %x %x %x %x", b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]);
        RESULT(CASE("%s of none", all[i].name), ioctl(s, all[i].request, &none));
    }
    struct ifreq r = {.ifr_ifindex = 1};
    RESULT("SIOCGIFNAME", ioctl(s, SIOCGIFNAME, &r));
    show("name", "%s", r.ifr_name);
    r.ifr_ifindex = 77;
    RESULT("SIOCGIFNAME of none", ioctl(s, SIOCGIFNAME, &r));
    struct ifreq list[4];
    struct ifconf c = {.ifc_len = sizeof list, .ifc_req = list};
    RESULT("SIOCGIFCONF", ioctl(s, SIOCGIFCONF, &c));
    show("interfaces", "%d %s", c.ifc_len, list[0].ifr_name);
    c = (struct ifconf){0};
    RESULT("SIOCGIFCONF, length only", ioctl(s, SIOCGIFCONF, &c));
    show("length", "%d", c.ifc_len);
    c = (struct ifconf){.ifc_len = 10, .ifc_req = list};
    RESULT("SIOCGIFCONF, no room", ioctl(s, SIOCGIFCONF, &c));
    show("length then", "%d", c.ifc_len);
    RESULT("a bad address", ioctl(s, SIOCGIFFLAGS, (void *)8));
    close(s);
}

static void library(void) {
    show("if_nametoindex", "%u %u", if_nametoindex("lo"), if_nametoindex("eth77"));
    char name[IF_NAMESIZE] = "";
    show("if_indextoname", "%s %d", if_indextoname(1, name), if_indextoname(77, name) == 0);
    struct if_nameindex *n = if_nameindex();
    for (int i = 0; n && n[i].if_index; i++)
        show(CASE("if_nameindex %d", i), "%u %s", n[i].if_index, n[i].if_name);
    struct ifaddrs *list = 0;
    RESULT("getifaddrs", getifaddrs(&list));
    int i = 0;
    for (struct ifaddrs *a = list; a; a = a->ifa_next)
        show(CASE("getifaddrs %d", i++), "%s %x family %d", a->ifa_name, a->ifa_flags & 0xffff, a->ifa_addr ? a->ifa_addr->sa_family : -1);
    static const struct {
        const char *host, *service;
        int family, flags;
    } names[] = {{"127.0.0.1", "80", AF_UNSPEC, 0}, {"::1", "80", AF_UNSPEC, 0},       {"127.0.0.1", "80", AF_UNSPEC, AI_ADDRCONFIG | AI_NUMERICHOST},
                 {0, "80", AF_INET, AI_PASSIVE},    {0, "80", AF_INET6, 0},            {"localhost", "80", AF_INET, 0},
                 {"127.0.0.1", "80", AF_INET6, AI_V4MAPPED}, {"no.such.host.invalid", "80", AF_INET, AI_NUMERICHOST}, {"localhost", "http", AF_INET, AI_NUMERICSERV}};
    for (unsigned k = 0; k < sizeof names / sizeof *names; k++) {
        struct addrinfo hint = {.ai_family = names[k].family, .ai_flags = names[k].flags, .ai_socktype = SOCK_STREAM}, *got = 0;
        int e = getaddrinfo(names[k].host, names[k].service, &hint, &got);
        show(CASE("getaddrinfo %d", k), "%d %s", e, e ? "" : text_of((address_t *)got->ai_addr));
    }
}

struct generic {
    struct nlmsghdr h;
    struct genlmsghdr g;
    char body[64];
};

// Appends an attribute to a request.
static void put_attribute(struct generic *r, int type, const void *data, int length) {
    struct nlattr *a = (void *)((char *)r + NLMSG_ALIGN(r->h.nlmsg_len));
    a->nla_type = type;
    a->nla_len = NLA_HDRLEN + length;
    memcpy((char *)a + NLA_HDRLEN, data, length);
    r->h.nlmsg_len = NLMSG_ALIGN(r->h.nlmsg_len) + NLA_ALIGN(a->nla_len);
}

static struct generic request(int type, int flags, int command) {
    return (struct generic){.h = {.nlmsg_len = NLMSG_LENGTH(GENL_HDRLEN), .nlmsg_type = type, .nlmsg_flags = NLM_F_REQUEST | flags, .nlmsg_seq = 9},
                            .g = {.cmd = command, .version = 1}};
}

static struct generic with(int type, int flags, int command, int attribute, const void *data, int length) {
    struct generic r = request(type, flags, command);
    put_attribute(&r, attribute, data, length);
    return r;
}

static unsigned short taskstats;

// Attributes with their lengths, and what is in those that are the same everywhere.
static void attributes(char *line, char *at, int left, int of) {
    for (; left >= NLA_HDRLEN; ) {
        struct nlattr *a = (void *)at;
        char *data = at + NLA_HDRLEN;
        int type = a->nla_type & NLA_TYPE_MASK, n = a->nla_len - NLA_HDRLEN;
        if (n < 0 || a->nla_len > left)
            break;
        char *to = line + strlen(line);
        if (of == 0 && type == CTRL_ATTR_FAMILY_NAME)
            sprintf(to, " name %s", data);
        else if (of == 0 && type == CTRL_ATTR_FAMILY_ID) {
            unsigned short id = *(unsigned short *)data;
            sprintf(to, id == GENL_ID_CTRL ? " the controller" : " id");
            if (strstr(line, "TASKSTATS"))
                taskstats = id;
        } else if (of == 0 && (type == CTRL_ATTR_OPS || type == CTRL_ATTR_MCAST_GROUPS)) {
            sprintf(to, " %d[", type);
            attributes(line, data, n, 2);
            strcat(line, " ]");
        } else if (of == 2) {
            sprintf(to, " %d[", type);
            attributes(line, data, n, 3);
            strcat(line, " ]");
        } else if (of == 1 && (type == TASKSTATS_TYPE_AGGR_PID || type == TASKSTATS_TYPE_AGGR_TGID)) {
            sprintf(to, " %d[", type);
            attributes(line, data, n, 4);
            strcat(line, " ]");
        } else if (of == 4 && type == TASKSTATS_TYPE_STATS) {
            struct taskstats t = {0};
            memcpy(&t, data, n < (int)sizeof t ? n : (int)sizeof t);
            sprintf(to, " stats pid %d parent %d uid %u name %s, began %d, used %d, whole %d", t.ac_pid == (unsigned)getpid(),
                    t.ac_ppid == (unsigned)getppid(), t.ac_uid, t.ac_comm, t.ac_btime > 1600000000, t.ac_utime < t.ac_etime + 1000000,
                    n >= 300 && t.version >= 10);
        } else if (of == 4)
            sprintf(to, " %d %s", type, *(int *)data == getpid() ? "me" : "other");
        else if (n == 4)
            sprintf(to, " %d=%d", type, *(int *)data);
        else
            sprintf(to, " %d(%d)", type, n);
        at += NLA_ALIGN(a->nla_len);
        left -= NLA_ALIGN(a->nla_len);
    }
}

static void generic_ask(const char *name, struct generic r) {
    int s = socket(AF_NETLINK, SOCK_RAW, NETLINK_GENERIC);
    struct timeval tv = {0, 200000};
    setsockopt(s, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv);
    show(CASE("%s: sent", name), "%d", send(s, &r, r.h.nlmsg_len, 0) == (long)r.h.nlmsg_len);
    static char buffer[65536];
    int done = 0, ours = 0;
    while (!done) {
        long n = recv(s, buffer, sizeof buffer, 0);
        if (n < 0) {
            show(CASE("%s: no more", name), "%s", strerrorname_np(errno));
            break;
        }
        for (struct nlmsghdr *h = (void *)buffer; NLMSG_OK(h, n); h = NLMSG_NEXT(h, n)) {
            char line[2048] = "";
            struct genlmsghdr *g = NLMSG_DATA(h);
            int left = h->nlmsg_len - NLMSG_LENGTH(GENL_HDRLEN);
            if (h->nlmsg_type == NLMSG_ERROR) {
                int error = *(int *)NLMSG_DATA(h);
                show(CASE("%s: error", name), "%s seq %u", error ? strerrorname_np(-error) : "none", h->nlmsg_seq);
                done = 1;
            } else if (h->nlmsg_type == NLMSG_DONE)
                done = 1;
            else {
                attributes(line, (char *)(g + 1), left, h->nlmsg_type == GENL_ID_CTRL ? 0 : 1);
                // A dump lists what this kernel happens to have.
                if (!(r.h.nlmsg_flags & NLM_F_DUMP)) {
                    show(CASE("%s: answer", name), "command %d version %d%s", g->cmd, g->version, line);
                    done = !(r.h.nlmsg_flags & NLM_F_ACK);
                } else
                    ours += strstr(line, "name nlctrl") || strstr(line, "name TASKSTATS");
            }
        }
    }
    if (r.h.nlmsg_flags & NLM_F_DUMP)
        show(CASE("%s: of these two", name), "%d", ours);
    close(s);
}

static void generic(void) {
    int s = socket(AF_NETLINK, SOCK_DGRAM, NETLINK_GENERIC);
    show("protocol", "%d", option(s, SOL_SOCKET, SO_PROTOCOL));
    struct sockaddr_nl a = {.nl_family = AF_NETLINK};
    socklen_t n = sizeof a;
    int route = socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE);
    a.nl_pid = 77777;
    RESULT("bind a route socket", bind(route, (void *)&a, sizeof a));
    RESULT("a generic one has ports of its own", bind(s, (void *)&a, sizeof a));
    getsockname(s, (void *)&a, &n);
    show("port", "%u", a.nl_pid);
    close(s), close(route);
    unsigned short control = GENL_ID_CTRL, nobody = 5000;
    int me = getpid(), none = 0x3ffffff;
    generic_ask("nlctrl", with(GENL_ID_CTRL, 0, CTRL_CMD_GETFAMILY, CTRL_ATTR_FAMILY_NAME, "nlctrl", 7));
    generic_ask("nlctrl by number", with(GENL_ID_CTRL, 0, CTRL_CMD_GETFAMILY, CTRL_ATTR_FAMILY_ID, &control, 2));
    generic_ask("nlctrl and an acknowledgement", with(GENL_ID_CTRL, NLM_F_ACK, CTRL_CMD_GETFAMILY, CTRL_ATTR_FAMILY_NAME, "nlctrl", 7));
    generic_ask("TASKSTATS", with(GENL_ID_CTRL, 0, CTRL_CMD_GETFAMILY, CTRL_ATTR_FAMILY_NAME, "TASKSTATS", 10));
    generic_ask("no such name", with(GENL_ID_CTRL, 0, CTRL_CMD_GETFAMILY, CTRL_ATTR_FAMILY_NAME, "conformance", 12));
    generic_ask("an empty name", with(GENL_ID_CTRL, 0, CTRL_CMD_GETFAMILY, CTRL_ATTR_FAMILY_NAME, "", 1));
    generic_ask("a name without an end", with(GENL_ID_CTRL, 0, CTRL_CMD_GETFAMILY, CTRL_ATTR_FAMILY_NAME, "nlctrl", 6));
    generic_ask("a long name", with(GENL_ID_CTRL, 0, CTRL_CMD_GETFAMILY, CTRL_ATTR_FAMILY_NAME, "a name of many bytes", 21));
    generic_ask("a long value with a short name", with(GENL_ID_CTRL, 0, CTRL_CMD_GETFAMILY, CTRL_ATTR_FAMILY_NAME, "nlctrl\0............", 20));
    generic_ask("no such number", with(GENL_ID_CTRL, 0, CTRL_CMD_GETFAMILY, CTRL_ATTR_FAMILY_ID, &nobody, 2));
    generic_ask("a short number", with(GENL_ID_CTRL, 0, CTRL_CMD_GETFAMILY, CTRL_ATTR_FAMILY_ID, &control, 1));
    generic_ask("neither", request(GENL_ID_CTRL, 0, CTRL_CMD_GETFAMILY));
    generic_ask("all families", request(GENL_ID_CTRL, NLM_F_DUMP, CTRL_CMD_GETFAMILY));
    generic_ask("an unknown command", request(GENL_ID_CTRL, 0, 99));
    generic_ask("a command that only tells", request(GENL_ID_CTRL, 0, CTRL_CMD_NEWFAMILY));
    generic_ask("an unknown family", request(1000, 0, 1));
    generic_ask("a low type", request(5, NLM_F_ACK, 1));
    struct generic r = request(GENL_ID_CTRL, 0, CTRL_CMD_GETFAMILY);
    r.h.nlmsg_len = NLMSG_LENGTH(2);
    generic_ask("a short message", r);
    if (!taskstats)
        return;
    generic_ask("my thread", with(taskstats, 0, TASKSTATS_CMD_GET, TASKSTATS_CMD_ATTR_PID, &me, 4));
    r = with(taskstats, 0, TASKSTATS_CMD_GET, TASKSTATS_CMD_ATTR_TGID, &me, 4);
    generic_ask("nobody", with(taskstats, 0, TASKSTATS_CMD_GET, TASKSTATS_CMD_ATTR_PID, &none, 4));
    generic_ask("no process", with(taskstats, 0, TASKSTATS_CMD_GET, TASKSTATS_CMD_ATTR_TGID, &none, 4));
    generic_ask("half a number", with(taskstats, 0, TASKSTATS_CMD_GET, TASKSTATS_CMD_ATTR_PID, &me, 2));
    generic_ask("nothing asked", request(taskstats, 0, TASKSTATS_CMD_GET));
    generic_ask("a list", request(taskstats, NLM_F_DUMP, TASKSTATS_CMD_GET));
    generic_ask("a telling command", request(taskstats, 0, TASKSTATS_CMD_NEW));
    generic_ask("an unknown command there", request(taskstats, 0, 77));
}

int main(void) {
    setvbuf(stdout, 0, _IOFBF, 1 << 16);
    only_loopback();
    sockets();
    requests();
    ioctls();
    library();
    generic();
    return 0;
}

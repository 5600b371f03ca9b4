// What the socket families share: a network namespace with nothing but the loopback interface, and addresses on it.
#ifndef CONFORMANCE_NET_H
#define CONFORMANCE_NET_H
#include "check.h"
#include <arpa/inet.h>
#include <fcntl.h>
#include <net/if.h>
#include <netinet/in.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <sys/wait.h>

__attribute__((unused)) static void put_file(const char *path, const char *text) {
    int fd = open(path, O_WRONLY);
    if (fd >= 0) {
        if (write(fd, text, strlen(text)) < 0) {
        }
        close(fd);
    }
}

// On the host: a fresh network namespace whose loopback interface is up. The sandbox has nothing else anyway.
__attribute__((unused)) static void only_loopback(void) {
    unsigned uid = getuid(), gid = getgid();
    char map[64];
    if (unshare(CLONE_NEWNET) != 0) {
        if (unshare(CLONE_NEWUSER | CLONE_NEWNET) != 0)
            return;
        put_file("/proc/self/setgroups", "deny");
        snprintf(map, sizeof map, "0 %u 1", uid);
        put_file("/proc/self/uid_map", map);
        snprintf(map, sizeof map, "0 %u 1", gid);
        put_file("/proc/self/gid_map", map);
    }
    struct ifreq r = {.ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING};
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    ioctl(fd, SIOCSIFFLAGS, &r);
    close(fd);
    // ::1 is tentative for a moment.
    for (int i = 0; i < 100; i++) {
        struct sockaddr_in6 a = {.sin6_family = AF_INET6, .sin6_addr = in6addr_loopback};
        fd = socket(AF_INET6, SOCK_DGRAM, 0);
        int done = bind(fd, (void *)&a, sizeof a) == 0;
        close(fd);
        if (done)
            break;
        usleep(10000);
    }
}

// Any address of either family.
typedef union {
    struct sockaddr any;
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
    struct sockaddr_un un;
} address_t;

__attribute__((unused)) static address_t in4(const char *text, int port) {
    address_t a = {.v4 = {.sin_family = AF_INET, .sin_port = htons(port)}};
    inet_pton(AF_INET, text, &a.v4.sin_addr);
    return a;
}

__attribute__((unused)) static address_t in6(const char *text, int port) {
    address_t a = {.v6 = {.sin6_family = AF_INET6, .sin6_port = htons(port)}};
    inet_pton(AF_INET6, text, &a.v6.sin6_addr);
    return a;
}

__attribute__((unused)) static socklen_t size_of(const address_t *a) {
    return a->any.sa_family == AF_INET ? sizeof a->v4 : a->any.sa_family == AF_INET6 ? sizeof a->v6 : sizeof a->un;
}

__attribute__((unused)) static int port_of(const address_t *a) {
    return ntohs(a->any.sa_family == AF_INET ? a->v4.sin_port : a->v6.sin6_port);
}

__attribute__((unused)) static const char *text_of(const address_t *a) {
    static char text[4][64];
    static int next;
    char *t = text[next++ % 4];
    if (a->any.sa_family == AF_INET)
        inet_ntop(AF_INET, &a->v4.sin_addr, t, 64);
    else if (a->any.sa_family == AF_INET6)
        inet_ntop(AF_INET6, &a->v6.sin6_addr, t, 64);
    else
        snprintf(t, 64, "family %d", a->any.sa_family);
    return t;
}

__attribute__((unused)) static int bind_to(int fd, address_t a) { return bind(fd, &a.any, size_of(&a)); }
__attribute__((unused)) static int connect_to(int fd, address_t a) { return connect(fd, &a.any, size_of(&a)); }

__attribute__((unused)) static address_t name_of(int fd) {
    address_t a = {0};
    socklen_t n = sizeof a;
    getsockname(fd, &a.any, &n);
    return a;
}

__attribute__((unused)) static address_t peer_of(int fd) {
    address_t a = {0};
    socklen_t n = sizeof a;
    getpeername(fd, &a.any, &n);
    return a;
}

__attribute__((unused)) static int set_option(int fd, int level, int name, int value) {
    return setsockopt(fd, level, name, &value, sizeof value);
}

__attribute__((unused)) static int option(int fd, int level, int name) {
    int value = -12345;
    socklen_t n = sizeof value;
    if (getsockopt(fd, level, name, &value, &n) != 0)
        return -1000 - errno;
    return value;
}

__attribute__((unused)) static void receive_timeout(int fd, int ms) {
    struct timeval t = {ms / 1000, ms % 1000 * 1000};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &t, sizeof t);
}

__attribute__((unused)) static int nonblocking(int fd, int on) {
    int flags = fcntl(fd, F_GETFL);
    return fcntl(fd, F_SETFL, on ? flags | O_NONBLOCK : flags & ~O_NONBLOCK);
}

// The poll events of a descriptor as text.
__attribute__((unused)) static const char *events_of(int fd) {
    static char text[4][96];
    static int next;
    static const struct {
        int bit;
        const char *name;
    } names[] = {{POLLIN, "IN "},   {POLLPRI, "PRI "},       {POLLOUT, "OUT "},       {POLLERR, "ERR "},     {POLLHUP, "HUP "},
                 {POLLNVAL, "NVAL "}, {POLLRDNORM, "RDNORM "}, {POLLWRNORM, "WRNORM "}, {POLLRDHUP, "RDHUP "}};
    char *t = text[next++ % 4];
    struct pollfd p = {fd, (short)(POLLIN | POLLPRI | POLLOUT | POLLRDNORM | POLLWRNORM | POLLRDHUP), 0};
    t[0] = 0;
    if (poll(&p, 1, 0) < 0)
        return "error";
    for (unsigned i = 0; i < sizeof names / sizeof *names; i++)
        if (p.revents & names[i].bit)
            strcat(t, names[i].name);
    return t[0] ? t : "none";
}
#define EVENTS(name, fd) show(name, "%s", events_of(fd))

// Sends (fds, count) with one byte.
__attribute__((unused)) static long send_fds(int s, const int *fds, int count, int flags) {
    char byte = 'f', control[CMSG_SPACE(sizeof(int) * 260)] = {0};
    struct iovec v = {&byte, 1};
    struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = control, .msg_controllen = CMSG_SPACE(sizeof(int) * count)};
    struct cmsghdr *c = CMSG_FIRSTHDR(&m);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(sizeof(int) * count);
    memcpy(CMSG_DATA(c), fds, sizeof(int) * count);
    return sendmsg(s, &m, flags);
}
#endif

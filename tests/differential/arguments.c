// How arguments are written and what they leave behind is printed.
//
//   iN      a number                         fN       the descriptor in slot N
//   "TEXT   a string ("%s" stands for a name of this program alone)
//   wN,S    N bytes to write, from seed S    rN       room for N bytes, printed as far as the result says
//   xHEX    a structure                      yHEX     a structure that is printed afterwards (zHEX: 24 bytes of it)
//   kN      the process in slot N (31: the caller itself)      L   the length of the address before
//   mN+OFF  an address in region N           2N       int[2], kept in slots N and N+1
//   KIND words: stat statx dents string status siginfo epoll address length
//   P3:1,4:5      struct pollfd of slots and events       E5:events   struct epoll_event with slot 5 as data
//   VwN,M,S VrN,M two iovecs                              u:NAME u@NAME n4:PORT n6:PORT   socket addresses
#define _GNU_SOURCE
#include "interpreter.h"

static unsigned hash(const unsigned char *p, long n) {
    unsigned h = 2166136261u;
    for (long i = 0; i < n; i++) h = (h ^ p[i]) * 16777619u;
    return h;
}

static void pattern(char *at, long n, unsigned seed) {
    for (long i = 0; i < n; i++) at[i] = (char)('a' + (seed * 7 + (unsigned long)i * (seed % 5 + 1)) % 26);
}

static long bounded(long n) { return n < 0 ? 0 : n > BUFFER - 64 ? BUFFER - 64 : n; }

static int unhex(const char *hex, char *to) {
    int n = 0;
    for (; hex[0] && hex[1] && n < 512; hex += 2) {
        unsigned byte;
        sscanf(hex, "%2x", &byte);
        to[n++] = (char)byte;
    }
    return n;
}

static int lengths[8];

static long socket_address(const char *token, int index) {
    char *b = buffers[index];
    memset(b, 0, 256);
    if (token[0] == 'u') {
        struct sockaddr_un *a = (void *)b;
        a->sun_family = AF_UNIX;
        if (token[1] == ':') {
            strcpy(a->sun_path, token + 2);
            lengths[index] = (int)(2 + strlen(a->sun_path) + 1);
        } else {
            lengths[index] = 3 + snprintf(a->sun_path + 1, 100, "%s%s", scratch_name, token + 2);
        }
    } else if (token[1] == '4') {
        struct sockaddr_in *a = (void *)b;
        a->sin_family = AF_INET;
        a->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        a->sin_port = (in_port_t)(token[3] == '-' ? 0 : ports[atoi(token + 3) % SLOTS]);
        lengths[index] = sizeof *a;
    } else {
        struct sockaddr_in6 *a = (void *)b;
        a->sin6_family = AF_INET6;
        a->sin6_addr = in6addr_loopback;
        a->sin6_port = (in_port_t)(token[3] == '-' ? 0 : ports[atoi(token + 3) % SLOTS]);
        lengths[index] = sizeof *a;
    }
    return (long)b;
}

static long vector(const char *token, int index) {
    long a = 0, b = 0, seed = 0;
    struct iovec *v = (void *)buffers[index];
    sscanf(token + 2, "%ld,%ld,%ld", &a, &b, &seed);
    a = bounded(a) / 2, b = bounded(b) / 2;
    char *data = buffers[index] + 64;
    if (token[1] == 'w') pattern(data, a + b, (unsigned)seed);
    else memset(data, 0, (size_t)(a + b));
    v[0] = (struct iovec){data, (size_t)a};
    v[1] = (struct iovec){data + a, (size_t)b};
    return (long)v;
}

static long poll_set(const char *token, int index) {
    struct pollfd *p = (void *)buffers[index];
    int n = 0, slot, events, used;
    for (token++; sscanf(token, "%d:%d%n", &slot, &events, &used) == 2 && n < 8; n++) {
        p[n] = (struct pollfd){(int)slots[slot % SLOTS], (short)events, 0};
        token += used;
        if (*token == ',') token++;
    }
    lengths[index] = n;
    return (long)p;
}

long argument(const char *token, int index) {
    char *b = buffers[index];
    long n = 0, m = 0;
    switch (token[0]) {
    case 'i': return strtol(token + 1, NULL, 10);
    case 'f': return slots[atoi(token + 1) % SLOTS];
    case 'k': return pids[atoi(token + 1) % SLOTS];
    case '"': snprintf(b, 4096, !strcmp(token, "\"%s") ? "%s" : "%.0s%s", scratch_name, token + 1); return (long)b;
    case 'w':
        sscanf(token + 1, "%ld,%ld", &n, &m);
        pattern(b, bounded(n), (unsigned)m);
        return (long)b;
    case 'r': memset(b, 0, (size_t)bounded(atol(token + 1))); return (long)b;
    case 'x':
    case 'y':
    case 'z': memset(b, 0, 512); lengths[index] = unhex(token + 1, b); return (long)b;
    case 'm': sscanf(token + 1, "%ld+%ld", &n, &m); return WINDOW(n) + m;
    case '2': memset(b, 0, 64); return (long)b;
    case 'P': return poll_set(token, index);
    case 'E': {
        struct epoll_event *e = (void *)b;
        sscanf(token + 1, "%ld:%ld", &n, &m);
        e->events = (unsigned)m;
        e->data.u64 = (unsigned long)n;
        return (long)b;
    }
    case 'V': return vector(token, index);
    case 'u':
    case 'n': return socket_address(token, index);
    case 'L': return lengths[index - 1];
    }
    memset(b, 0, 8192);
    if (!strcmp(token, "length")) *(int *)b = 110;
    return (long)b;
}

static int by_name(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

static void show_entries(char *b, long result) {
    char *names[512];
    int count = 0;
    for (long at = 0; at < result && count < 512;) {
        unsigned short length = *(unsigned short *)(b + at + 16);
        char *name = b + at + 19;
        // Its type takes the place of the byte before the name.
        b[at + 18] = (char)('0' + b[at + 18]);
        if (strcmp(name, ".") && strcmp(name, "..")) names[count++] = b + at + 18;
        at += length;
    }
    qsort(names, (size_t)count, sizeof *names, by_name);
    for (int i = 0; i < count; i++) say(" %s", names[i]);
}

static void show_events(struct epoll_event *events, long n) {
    for (unsigned slot = 0; slot < SLOTS; slot++)
        for (long i = 0; i < n; i++)
            if (events[i].data.u64 == slot) say(" slot%u:%x", slot, events[i].events);
}

void show(const char *token, int index, long result) {
    unsigned char *b = (void *)buffers[index];
    if (result < 0) return;
    if (token[0] == 'r' && result > 0) {
        long n = bounded(result);
        say(" hash %x", hash(b, n));
    } else if (token[0] == 'V' && token[1] == 'r') {
        say(" hash %x", hash(b + 64, bounded(result)));
    } else if (token[0] == 'y' || token[0] == 'z') {
        say(" ");
        for (int i = 0; i < lengths[index] && (token[0] == 'y' || i < 24); i++) say("%02x", b[i]);
    } else if (token[0] == '2') {
        int *pair = (int *)b, to = atoi(token + 1);
        slots[to % SLOTS] = pair[0], slots[(to + 1) % SLOTS] = pair[1];
        say(" {%d %d}", pair[0], pair[1]);
    } else if (token[0] == 'P') {
        struct pollfd *p = (void *)b;
        for (int i = 0; i < lengths[index]; i++) say(" %x", p[i].revents);
    } else if (!strcmp(token, "stat")) {
        struct stat *s = (void *)b;
        int dir = S_ISDIR(s->st_mode), sized = S_ISREG(s->st_mode) || S_ISLNK(s->st_mode);
        say(" mode %o links %ld size %ld owner %d:%d", s->st_mode, dir ? 0L : (long)s->st_nlink, sized ? (long)s->st_size : 0L, s->st_uid,
            s->st_gid);
    } else if (!strcmp(token, "statx")) {
        struct statx *s = (void *)b;
        int dir = S_ISDIR(s->stx_mode), sized = S_ISREG(s->stx_mode) || S_ISLNK(s->stx_mode);
        say(" mode %o links %u size %llu mask %x", s->stx_mode, dir ? 0 : s->stx_nlink, sized ? s->stx_size : 0ULL, s->stx_mask & 0x7ff);
    } else if (!strcmp(token, "dents")) {
        show_entries((char *)b, result);
    } else if (!strcmp(token, "string")) {
        char *text = (char *)b, *own = strstr(text, scratch_name);
        say(" '%s'", own ? own + strlen(scratch_name) : text);
    } else if (!strcmp(token, "status")) {
        say(" status %x", *(int *)b);
    } else if (!strcmp(token, "siginfo")) {
        siginfo_t *s = (void *)b;
        say(" signo %d code %d value %d", s->si_signo, s->si_code, s->si_code == SI_QUEUE ? s->si_value.sival_int : 0);
    } else if (!strcmp(token, "signals")) {
        for (long at = 0; at + 128 <= result; at += 128) say(" signo %u code %d", *(unsigned *)(b + at), *(int *)(b + at + 8));
    } else if (!strcmp(token, "epoll")) {
        show_events((void *)b, result);
    } else if (!strcmp(token, "address")) {
        struct sockaddr_un *a = (void *)b;
        say(" family %d", a->sun_family);
        if (a->sun_family == AF_UNIX) {
            char *name = a->sun_path[0] ? a->sun_path : a->sun_path + 1;
            say(" %s'%s'", a->sun_path[0] || !a->sun_path[1] ? "" : "@", a->sun_path[0] ? name : name + (name[0] ? strlen(scratch_name) : 0));
        }
    } else if (!strcmp(token, "length")) {
        int n = *(int *)b;
        struct sockaddr_un *a = (void *)buffers[index - 1];
        say(" length %d", a->sun_family == AF_UNIX && !a->sun_path[0] && n > 2 ? n - (int)strlen(scratch_name) : n);
    } else if (!strcmp(token, "changes")) {
        for (long at = 0; at + 16 <= result;) {
            unsigned *e = (void *)(b + at);
            say(" {wd %d mask %x cookie %d len %u '%s'}", (int)e[0], e[1], e[2] != 0, e[3], e[3] ? (char *)(e + 4) : "");
            at += 16 + e[3];
        }
    }
}

// !sendmsg SLOT LENGTH FLAGS PASSED ADDRESS: PASSED is a slot whose descriptor goes along, or -1.
void send_message(int fd, long length) {
    char control[64] = {0};
    long passed = token_count > 4 ? atol(tokens[4]) : -1;
    pattern(buffers[0], bounded(length), 5);
    struct iovec v = {buffers[0], (size_t)bounded(length)};
    struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1};
    if (passed >= 0) {
        m.msg_control = control, m.msg_controllen = CMSG_SPACE(sizeof(int));
        struct cmsghdr *c = CMSG_FIRSTHDR(&m);
        *c = (struct cmsghdr){.cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(sizeof(int))};
        memcpy(CMSG_DATA(c), &(int){(int)slots[passed % SLOTS]}, sizeof(int));
    }
    if (token_count > 5) {
        m.msg_name = (void *)socket_address(tokens[5], 1);
        m.msg_namelen = (unsigned)lengths[1];
    }
    long result = sendmsg(fd, &m, (int)atol(tokens[3]));
    say(" = %ld errno %d", result, result < 0 ? errno : 0);
}

// !recvmsg SLOT LENGTH FLAGS ROOM TO: room for control bytes; a descriptor that arrives goes to slot TO.
void receive_message(int fd, long length) {
    char control[256] = {0};
    memset(buffers[0], 0, (size_t)bounded(length));
    struct iovec v = {buffers[0], (size_t)bounded(length)};
    struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = control, .msg_controllen = (size_t)atol(tokens[4]) % 256};
    long result = recvmsg(fd, &m, (int)atol(tokens[3]));
    say(" = %ld errno %d", result, result < 0 ? errno : 0);
    if (result < 0) return;
    say(" flags %x control %zu hash %x", m.msg_flags, m.msg_controllen, hash((void *)buffers[0], result < length ? result : length));
    for (struct cmsghdr *c = CMSG_FIRSTHDR(&m); c; c = CMSG_NXTHDR(&m, c)) {
        say(" cmsg %d %d %zu", c->cmsg_level, c->cmsg_type, c->cmsg_len);
        if (c->cmsg_type == SCM_RIGHTS && c->cmsg_len >= CMSG_LEN(sizeof(int))) {
            int got;
            memcpy(&got, CMSG_DATA(c), sizeof got);
            slots[atol(tokens[5]) % SLOTS] = got;
            say(" fd %d", got);
        }
    }
}

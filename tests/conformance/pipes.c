// pipe, pipe2, FIFO sizes, atomic writes, O_NONBLOCK, EPIPE, F_SETPIPE_SZ; the buffers of a page each, packets, splices, locks.
#include "net.h"
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/uio.h>

static char big[1 << 20];
static void *volatile nowhere = (void *)8;

static int unread(int fd) {
    int n = -1;
    ioctl(fd, FIONREAD, &n);
    return n;
}

// A pipe takes buffers of a page, however little is in them.
static void buffers(void) {
    static const struct {
        const char *what;
        int first, then, times;
    } cases[] = {{"64 bytes", 64, 64, 70000},       {"half pages", 2048, 2048, 40}, {"3000 bytes", 3000, 3000, 40}, {"pages", 4096, 4096, 40},
                 {"a page and a byte", 4097, 4097, 40}, {"5000 bytes", 5000, 5000, 40}, {"a byte, then pages", 1, 4096, 40},
                 {"100 bytes, then 4090", 100, 4090, 40}, {"3584 bytes, then 512", 3584, 512, 900}, {"3584 bytes, then 513", 3584, 513, 900}};
    for (unsigned i = 0; i < sizeof cases / sizeof *cases; i++) {
        int p[2], n = 0;
        if (pipe2(p, O_NONBLOCK) != 0)
            return;
        long total = write(p[1], big, cases[i].first), k = 0;
        while (n < cases[i].times && (k = write(p[1], big, cases[i].then)) > 0)
            total += k, n++;
        show(CASE("%s: writes", cases[i].what), "%d %ld %s", n, total, k < 0 ? strerrorname_np(errno) : "");
        show(CASE("%s: unread", cases[i].what), "%d", unread(p[0]));
        EVENTS(CASE("%s: full", cases[i].what), p[1]);
        RESULT(CASE("%s: one byte more", cases[i].what), write(p[1], "x", 1));
        RESULT(CASE("%s: read 1", cases[i].what), read(p[0], big, 1));
        EVENTS(CASE("%s: after 1", cases[i].what), p[1]);
        RESULT(CASE("%s: write 1 then", cases[i].what), write(p[1], "x", 1));
        RESULT(CASE("%s: read a page", cases[i].what), read(p[0], big, 4095));
        EVENTS(CASE("%s: after a page", cases[i].what), p[1]);
        RESULT(CASE("%s: write two pages", cases[i].what), write(p[1], big, 8192));
        RESULT(CASE("%s: PIPE_BUF now", cases[i].what), write(p[1], big, 4096));
        RESULT(CASE("%s: shrink", cases[i].what), fcntl(p[1], F_SETPIPE_SZ, 4096));
        RESULT(CASE("%s: grow", cases[i].what), fcntl(p[1], F_SETPIPE_SZ, 100000));
        RESULT(CASE("%s: a large write", cases[i].what), write(p[1], big, sizeof big));
        while (read(p[0], big, sizeof big) > 0) {
        }
        RESULT(CASE("%s: shrink when it is empty", cases[i].what), fcntl(p[1], F_SETPIPE_SZ, 1));
        RESULT(CASE("%s: into one page", cases[i].what), write(p[1], big, 5000));
        close(p[0]);
        close(p[1]);
    }
    // Memory that ends in the middle: only what fills a page counts.
    char *hole = mmap(NULL, 16384, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    munmap(hole + 8192, 8192);
    static const int starts[] = {0, 1, 4000, 4096, 4097, 8191};
    for (int i = 0; i < 6; i++) {
        int p[2];
        if (pipe2(p, O_NONBLOCK) != 0)
            return;
        RESULT(CASE("write beyond memory from %d", starts[i]), write(p[1], hole + starts[i], 10000));
        show(CASE("arrived from %d", starts[i]), "%d", unread(p[0]));
        if (write(p[1], "0123456789", 10) < 0)
            show("ten", "failed");
        RESULT(CASE("joined beyond memory from %d", starts[i]), write(p[1], hole + starts[i], 12288 - starts[i] % 7));
        show(CASE("in it from %d", starts[i]), "%d", unread(p[0]));
        RESULT(CASE("read beyond memory from %d", starts[i]), read(p[0], hole + starts[i], 10000));
        show(CASE("left from %d", starts[i]), "%d", unread(p[0]));
        close(p[0]);
        close(p[1]);
    }
    munmap(hole, 8192);
}

// pipe(7): with O_DIRECT each write is a packet.
static void packets(void) {
    int p[2];
    char text[64] = {0};
    RESULT("pipe2 O_DIRECT", pipe2(p, O_DIRECT | O_NONBLOCK));
    show("flags", "%x %x", fcntl(p[0], F_GETFL) & (O_DIRECT | O_NONBLOCK), fcntl(p[1], F_GETFL) & (O_DIRECT | O_NONBLOCK));
    RESULT("packet", write(p[1], "first", 5));
    RESULT("another", write(p[1], "second", 6));
    RESULT("none", write(p[1], "", 0));
    show("both unread", "%d", unread(p[0]));
    RESULT("a short read loses the rest", read(p[0], text, 3));
    RESULT("the next packet", read(p[0], text, 64));
    show("text", "%s", text);
    RESULT("no more", read(p[0], text, 64));
    RESULT("two pages and a bit", write(p[1], big, 9000));
    for (int i = 0; i < 4; i++)
        RESULT(CASE("part %d", i), read(p[0], big, sizeof big));
    int n = 0;
    while (write(p[1], "x", 1) == 1)
        n++;
    show("packets that fit", "%d %s", n, strerrorname_np(errno));
    EVENTS("full of packets", p[1]);
    read(p[0], text, 64);
    EVENTS("one less", p[1]);
    // The flag is one of the writing end, and may change.
    RESULT("O_DIRECT off", fcntl(p[1], F_SETFL, O_NONBLOCK));
    RESULT("a byte", write(p[1], "y", 1));
    RESULT("joins", write(p[1], "z", 1));
    struct iovec v[2] = {{text, 1}, {text + 1, 40}};
    for (int i = 0; i < 17; i++)
        RESULT(CASE("readv %d", i), readv(p[0], v, 2));
    RESULT("O_DIRECT on", fcntl(p[1], F_SETFL, O_NONBLOCK | O_DIRECT));
    RESULT("writev", writev(p[1], v, 2));
    RESULT("read it", read(p[0], text, 64));
    RESULT("O_DIRECT of the reading end", fcntl(p[0], F_SETFL, O_NONBLOCK | O_DIRECT));
    show("its flags", "%x", fcntl(p[0], F_GETFL) & O_DIRECT);
    write(p[1], "tail", 4);
    close(p[1]);
    RESULT("after the end", read(p[0], text, 2));
    RESULT("at the end", read(p[0], text, 2));
    close(p[0]);
    RESULT("unknown flags", pipe2(p, O_DIRECT | O_APPEND));
    // A packet keeps its bounds on the way from pipe to pipe.
    int q[2];
    if (pipe2(p, O_DIRECT | O_NONBLOCK) != 0 || pipe2(q, O_NONBLOCK) != 0)
        return;
    write(p[1], "one", 3);
    write(p[1], "three", 5);
    RESULT("tee", tee(p[0], q[1], 100, 0));
    RESULT("splice 6", splice(p[0], NULL, q[1], NULL, 6, 0));
    for (int i = 0; i < 5; i++)
        RESULT(CASE("over there %d", i), read(q[0], text, 64));
    RESULT("here", read(p[0], text, 64));
    for (int i = 0; i < 2; i++)
        close(p[i]), close(q[i]);
}

// Pages that were spliced stay buffers of their own.
static void spliced(void) {
    int p[2], q[2], file = memfd_create("m", 0);
    if (write(file, big, 200000) != 200000 || pipe2(p, O_NONBLOCK) != 0 || pipe2(q, O_NONBLOCK) != 0)
        return;
    static const struct {
        long at, len;
    } cases[] = {{0, 100}, {4000, 200}, {4095, 4098}, {10, 100000}, {0, 200000}, {199999, 10}, {4096, 65536}, {1, 65536}};
    for (unsigned i = 0; i < sizeof cases / sizeof *cases; i++) {
        loff_t at = cases[i].at;
        RESULT(CASE("splice %ld from %ld", cases[i].len, cases[i].at), splice(file, &at, p[1], NULL, cases[i].len, 0));
        int n = 0;
        while (write(p[1], big, 500) == 500 && n < 700)
            n++;
        show(CASE("writes behind %ld from %ld", cases[i].len, cases[i].at), "%d of %d", n, unread(p[0]));
        RESULT(CASE("on %ld from %ld", cases[i].len, cases[i].at), splice(p[0], NULL, q[1], NULL, 5000, 0));
        n = 0;
        while (write(q[1], big, 500) == 500 && n < 700)
            n++;
        show(CASE("there %ld from %ld", cases[i].len, cases[i].at), "%d of %d", n, unread(q[0]));
        while (read(p[0], big, sizeof big) > 0 || read(q[0], big, sizeof big) > 0) {
        }
        off_t from = cases[i].at;
        RESULT(CASE("sendfile %ld from %ld", cases[i].len, cases[i].at), sendfile(p[1], file, &from, cases[i].len));
        show(CASE("sendfile came to"), "%ld, %d", (long)from, unread(p[0]));
        struct iovec v = {big + cases[i].at, (size_t)cases[i].len};
        RESULT(CASE("vmsplice %ld from %ld", cases[i].len, cases[i].at), vmsplice(p[1], &v, 1, SPLICE_F_NONBLOCK));
        while (read(p[0], big, sizeof big) > 0) {
        }
    }
    close(file);
    for (int i = 0; i < 2; i++)
        close(p[i]), close(q[i]);
}

static void show_lock(const char *name, struct flock *l) {
    show(name, "type %d whence %d start %ld len %ld pid %d", l->l_type, l->l_whence, (long)l->l_start, (long)l->l_len, l->l_pid > 0);
}

// Locks, modes and owners of what has no name.
static void nameless(void) {
    int p[2], s[2], e = eventfd(0, 0), e2 = eventfd(0, 0);
    if (pipe(p) != 0 || socketpair(AF_UNIX, SOCK_STREAM, 0, s) != 0)
        return;
    RESULT("flock one end", flock(p[0], LOCK_EX | LOCK_NB));
    RESULT("flock the other", flock(p[1], LOCK_EX | LOCK_NB));
    RESULT("flock the first again", flock(p[0], LOCK_SH | LOCK_NB));
    RESULT("shared with the other", flock(p[1], LOCK_SH | LOCK_NB));
    RESULT("flock a socket", flock(s[0], LOCK_EX | LOCK_NB));
    RESULT("flock its peer", flock(s[1], LOCK_EX | LOCK_NB));
    close(e2);
    struct flock l = {.l_type = F_WRLCK, .l_start = 0, .l_len = 0};
    RESULT("write lock on the reading end", fcntl(p[0], F_SETLK, &l));
    RESULT("read lock on the reading end", (l.l_type = F_RDLCK, fcntl(p[0], F_SETLK, &l)));
    RESULT("read lock on the writing end", fcntl(p[1], F_SETLK, &l));
    RESULT("write lock on an eventfd", (l.l_type = F_WRLCK, fcntl(e, F_SETLK, &l)));
    struct flock o = {.l_type = F_WRLCK, .l_start = 10, .l_len = 20};
    RESULT("OFD lock on a socket", fcntl(s[0], F_OFD_SETLK, &o));
    o.l_start = 50;
    RESULT("another", fcntl(s[0], F_OFD_SETLK, &o));
    static const long ranges[][2] = {{0, 0}, {0, 10}, {0, 11}, {30, 0}, {45, 10}, {100, 5}};
    for (int i = 0; i < 6; i++)
        for (int type = 0; type < 4; type++)
            for (int end = 0; end < 2; end++) {
                struct flock g = {.l_type = type, .l_start = ranges[i][0], .l_len = ranges[i][1]};
                const char *name = CASE("F_OFD_GETLK %d of %ld+%ld at end %d", type, ranges[i][0], ranges[i][1], end);
                RESULT(name, fcntl(s[end], F_OFD_GETLK, &g));
                show_lock(name, &g);
            }
    struct flock g = {.l_type = F_UNLCK};
    RESULT("F_GETLK of F_UNLCK", fcntl(s[0], F_GETLK, &g));
    int m = memfd_create("seals", MFD_ALLOW_SEALING);
    if (ftruncate(m, 8192) != 0)
        return;
    o = (struct flock){.l_type = F_WRLCK, .l_start = 100, .l_len = 100};
    fcntl(m, F_OFD_SETLK, &o);
    g = (struct flock){.l_type = F_UNLCK, .l_whence = SEEK_END, .l_start = -8192, .l_len = 8192};
    RESULT("F_UNLCK from the end", fcntl(m, F_OFD_GETLK, &g));
    show_lock("F_UNLCK from the end", &g);
    // A seal against writes waits for mappings that could be written to.
    void *map = mmap(NULL, 4096, PROT_READ, MAP_SHARED, m, 0);
    RESULT("seal under a shared mapping", fcntl(m, F_ADD_SEALS, F_SEAL_WRITE));
    RESULT("future writes may be sealed", fcntl(m, F_ADD_SEALS, F_SEAL_FUTURE_WRITE));
    munmap(map, 4096);
    map = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE, m, 0);
    RESULT("seal under a private mapping", fcntl(m, F_ADD_SEALS, F_SEAL_WRITE));
    RESULT("seals", fcntl(m, F_GET_SEALS));
    close(m);
    struct stat st;
    const struct {
        const char *name;
        int fd;
    } all[] = {{"pipe", p[0]}, {"socket", s[0]}, {"eventfd", e}};
    for (int i = 0; i < 3; i++) {
        fstat(all[i].fd, &st);
        show(CASE("%s: at first", all[i].name), "%o %d", st.st_mode, st.st_uid == geteuid());
        RESULT(CASE("%s: fchmod", all[i].name), fchmod(all[i].fd, 0640));
        fstat(all[i].fd, &st);
        show(CASE("%s: mode", all[i].name), "%o", st.st_mode);
        RESULT(CASE("%s: fchown to nobody else", all[i].name), fchown(all[i].fd, -1, -1));
        RESULT(CASE("%s: fchown to oneself", all[i].name), fchown(all[i].fd, geteuid(), getegid()));
    }
    fstat(p[1], &st);
    show("mode of the other end", "%o", st.st_mode);
    for (int i = 0; i < 2; i++)
        close(p[i]), close(s[i]);
    close(e);
}

// Eventfds take numbers of 8 bytes, one for each buffer.
static void numbers(void) {
    int e = eventfd(0, EFD_NONBLOCK);
    unsigned long long n[4] = {1, 2, 3, 4};
    static const int lengths[] = {0, 1, 7, 8, 9, 16};
    for (int i = 0; i < 6; i++) {
        RESULT(CASE("write of %d to an eventfd", lengths[i]), write(e, n, lengths[i]));
        struct iovec v[2] = {{n, (size_t)lengths[i]}, {n + 2, (size_t)lengths[i]}};
        RESULT(CASE("writev of %d twice", lengths[i]), writev(e, v, 2));
        v[1].iov_len = 8;
        RESULT(CASE("writev of %d and 8", lengths[i]), writev(e, v, 2));
        RESULT(CASE("read of %d", lengths[i]), read(e, n + 3, lengths[i]));
        RESULT(CASE("readv of %d", lengths[i]), readv(e, v, 1));
    }
    n[0] = -1ull;
    RESULT("the largest number", write(e, n, 8));
    RESULT("from nowhere", write(e, nowhere, 8));
    close(e);
    int file = open("/dev/shm", O_RDONLY | O_DIRECTORY), bytes = 7;
    RESULT("FIONREAD of a directory", ioctl(file, FIONREAD, &bytes));
    RESULT("SEEK_DATA of a directory", lseek(file, 0, SEEK_DATA));
    RESULT("SEEK_HOLE of a directory", lseek(file, 0, SEEK_HOLE));
    close(file);
    file = memfd_create("short", 0);
    lseek(file, 100, SEEK_SET);
    RESULT("FIONREAD behind the end", ioctl(file, FIONREAD, &bytes));
    show("bytes", "%d", bytes);
    close(file);
}

int main(void) {
    int p[2];
    char buffer[70000];
    memset(buffer, 'x', sizeof buffer);
    signal(SIGPIPE, SIG_IGN);
    RESULT("pipe", pipe(p));
    RESULT("write 5", write(p[1], "hello", 5));
    int count = -1;
    RESULT("FIONREAD", ioctl(p[0], FIONREAD, &count));
    show("FIONREAD value", "%d", count);
    RESULT("read 3", read(p[0], buffer, 3));
    RESULT("read the rest", read(p[0], buffer, 100));
    RESULT("read the write end", read(p[1], buffer, 1));
    RESULT("write the read end", write(p[0], buffer, 1));
    RESULT("seek", lseek(p[0], 0, SEEK_SET));
    RESULT("pread", pread(p[0], buffer, 1, 0));
    RESULT("F_GETPIPE_SZ", fcntl(p[0], F_GETPIPE_SZ));
    RESULT("non-blocking", fcntl(p[0], F_SETFL, O_NONBLOCK));
    RESULT("read of an empty pipe", read(p[0], buffer, 1));
    RESULT("non-blocking writer", fcntl(p[1], F_SETFL, O_NONBLOCK));
    RESULT("write more than fits", write(p[1], buffer, sizeof buffer));
    RESULT("write to a full pipe", write(p[1], buffer, 1));
    RESULT("read 4096", read(p[0], buffer, 4096));
    RESULT("write PIPE_BUF after that", write(p[1], buffer, 4096));
    RESULT("write PIPE_BUF again", write(p[1], buffer, 4096));
    close(p[0]);
    RESULT("write without a reader", write(p[1], "x", 1));
    close(p[1]);
    // However much was read before, the end of the last writer is seen.
    for (int n = 0; n < 4; n++) {
        if (pipe(p) != 0)
            return 1;
        RESULT("write some", write(p[1], "abc", n));
        RESULT("read them", n ? read(p[0], buffer, n) : 0);
        struct pollfd end = {p[0], POLLIN, 0};
        RESULT("poll with a writer", poll(&end, 1, 0));
        close(p[1]);
        RESULT("poll without a writer", poll(&end, 1, 1000));
        show("events", "%#x", end.revents);
        RESULT("read at the end", read(p[0], buffer, 1));
        close(p[0]);
    }
    buffers();
    packets();
    spliced();
    nameless();
    numbers();
    return 0;
}

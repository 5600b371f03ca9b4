// Native asynchronous I/O: contexts and their rings, every kind of request, its errors, waiting, cancelling, signals, fork and exec.
#include "check.h"
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <linux/fs.h>
#include <poll.h>
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>

static void *volatile bad_address = (void *)8;

static long setup(unsigned n, aio_context_t *ctx) { return syscall(SYS_io_setup, n, ctx); }
static long destroy(aio_context_t ctx) { return syscall(SYS_io_destroy, ctx); }
static long submit(aio_context_t ctx, long n, struct iocb **list) { return syscall(SYS_io_submit, ctx, n, list); }
static long getevents(aio_context_t ctx, long least, long most, struct io_event *e, struct timespec *t) {
    return syscall(SYS_io_getevents, ctx, least, most, e, t);
}
static long pgetevents(aio_context_t ctx, long least, long most, struct io_event *e, struct timespec *t, const void *set) {
    return syscall(SYS_io_pgetevents, ctx, least, most, e, t, set);
}
static long cancel(aio_context_t ctx, struct iocb *cb) {
    struct io_event e;
    return syscall(SYS_io_cancel, ctx, cb, &e);
}

struct ring {
    unsigned id, nr, head, tail, magic, compat, incompat, length;
    struct io_event events[];
};

static aio_context_t ctx;

static struct iocb iocb(int op, int fd, void *buf, size_t n, long long offset) {
    return (struct iocb){.aio_data = 77, .aio_lio_opcode = op, .aio_fildes = fd, .aio_buf = (unsigned long)buf, .aio_nbytes = n, .aio_offset = offset};
}

static const char *result_text(long long r) {
    static char text[4][64];
    static int next;
    char *t = text[next++ % 4];
    if (r < 0)
        snprintf(t, 64, "%s", strerrorname_np(-r));
    else
        snprintf(t, 64, "%lld", r);
    return t;
}

// Submits one request and takes its event: what submission says, and how the request ended.
static long one(const char *name, struct iocb cb) {
    struct iocb *list[] = {&cb};
    cb.aio_key = 55;
    errno = 0;
    long done = submit(ctx, 1, list);
    if (done != 1) {
        show(name, "not submitted: %ld %s", done, strerrorname_np(errno));
        return -1;
    }
    struct io_event e;
    struct timespec soon = {2, 0};
    long got = getevents(ctx, 1, 1, &e, &soon);
    if (got != 1) {
        show(name, "no event: %ld", got);
        return -1;
    }
    show(name, "%s%s%s%s", result_text(e.res), e.data == cb.aio_data ? "" : ", other data", e.obj == (unsigned long)&cb ? "" : ", other iocb",
         e.res2 ? ", res2" : "");
    if (cb.aio_key)
        show(name, "the key is left");
    return e.res;
}

static void contexts(void) {
    aio_context_t c = 0;
    RESULT("setup of 0", setup(0, &c));
    RESULT("setup of very many", setup(0x7fffffff, &c));
    RESULT("setup of 9000000", setup(9000000, &c));
    RESULT("setup at a bad address", setup(1, bad_address));
    c = 5;
    RESULT("setup over something", setup(1, &c));
    static const unsigned sizes[] = {1, 2, 64, 127, 128, 1000};
    for (int i = 0; i < 6; i++) {
        c = 0;
        RESULT(CASE("setup of %u", sizes[i]), setup(sizes[i], &c));
        struct ring *r = (void *)c;
        show(CASE("its ring %u", sizes[i]), "id %u head %u tail %u magic %x compat %u incompat %u length %u", r->id, r->head, r->tail, r->magic, r->compat,
             r->incompat, r->length);
        CHECK(CASE("it holds %u", sizes[i]), r->nr > sizes[i]);
        CHECK(CASE("whole pages %u", sizes[i]), (32 + 32ul * r->nr + 4095) / 4096 * 4096 - (32 + 32ul * r->nr) < 32);
        struct io_event e;
        struct timespec zero = {0, 0};
        RESULT("nothing there", getevents(c, 0, 1, &e, &zero));
        RESULT("destroy", destroy(c));
        RESULT("destroy again", destroy(c));
        RESULT("events of what is gone", getevents(c, 0, 1, &e, &zero));
        unsigned char in;
        RESULT("the ring is unmapped", mincore((void *)(c & -4096ul), 4096, &in));
    }
    aio_context_t many[5] = {0};
    for (int i = 0; i < 5; i++)
        setup(4, &many[i]);
    for (int i = 0; i < 5; i++)
        show(CASE("id of context %d", i), "%u", ((struct ring *)many[i])->id);
    destroy(many[1]);
    many[1] = 0;
    setup(4, &many[1]);
    show("the lowest id is taken again", "%u", ((struct ring *)many[1])->id);
    for (int i = 0; i < 5; i++)
        RESULT(CASE("destroy context %d", i), destroy(many[i]));
    static char page[4096];
    RESULT("destroy of none", destroy(0));
    RESULT("destroy of other memory", destroy((aio_context_t)page));
    RESULT("destroy of a bad address", destroy((aio_context_t)bad_address));
    RESULT("submit to none", submit(0, 0, NULL));
    RESULT("submit of nothing to none", submit((aio_context_t)page, 0, NULL));
    RESULT("cancel in none", cancel(0, (void *)page));

    c = 0;
    setup(4, &c);
    struct ring *r = (void *)c;
    struct ring *to = mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    void *moved = mremap(r, 4096, 4096, MREMAP_MAYMOVE | MREMAP_FIXED, to);
    CHECK("a ring moves", moved == to);
    struct io_event e;
    struct timespec zero = {0, 0};
    RESULT("it is not at the old place", getevents(c, 0, 1, &e, &zero));
    RESULT("it is at the new one", getevents((aio_context_t)to, 0, 1, &e, &zero));
    RESULT("and is destroyed there", destroy((aio_context_t)to));
    c = 0;
    setup(4, &c);
    munmap((void *)c, 4096);
    RESULT("an unmapped ring", getevents(c, 0, 1, &e, &zero));
    c = 0;
    setup(4, &c);
    mprotect((void *)c, 4096, PROT_NONE);
    RESULT("an inaccessible ring", getevents(c, 0, 1, &e, &zero));
    mprotect((void *)c, 4096, PROT_READ | PROT_WRITE);
    RESULT("accessible again", getevents(c, 0, 1, &e, &zero));
    RESULT("inside of a ring", getevents(c + 8, 0, 1, &e, &zero));
    destroy(c);
    FILE *f = fopen("/proc/sys/fs/aio-max-nr", "r");
    long most = 0;
    CHECK("aio-max-nr", f && fscanf(f, "%ld", &most) == 1 && most >= 65536);
    fclose(f);
    f = fopen("/proc/sys/fs/aio-nr", "r");
    CHECK("aio-nr", f && fscanf(f, "%ld", &most) == 1 && most >= 0);
    fclose(f);
}

static void files(void) {
    static char a[8192], b[8192];
    memset(a, 'a', sizeof a);
    int fd = open("file", O_CREAT | O_RDWR | O_TRUNC, 0644);
    one("write", iocb(IOCB_CMD_PWRITE, fd, a, 5000, 0));
    show("size", "%ld", (long)lseek(fd, 0, SEEK_END));
    one("write behind a hole", iocb(IOCB_CMD_PWRITE, fd, "end", 3, 10000));
    show("size", "%ld", (long)lseek(fd, 0, SEEK_END));
    lseek(fd, 17, SEEK_SET);
    memset(b, 0, sizeof b);
    one("read", iocb(IOCB_CMD_PREAD, fd, b, 5000, 0));
    CHECK("what was written", memcmp(a, b, 5000) == 0);
    one("read the hole", iocb(IOCB_CMD_PREAD, fd, b, 100, 6000));
    CHECK("zeroes", b[0] == 0 && b[99] == 0);
    one("read to the end", iocb(IOCB_CMD_PREAD, fd, b, 100, 9990));
    CHECK("the end", memcmp(b + 10, "end", 3) == 0);
    one("read at the end", iocb(IOCB_CMD_PREAD, fd, b, 100, 10003));
    one("read beyond it", iocb(IOCB_CMD_PREAD, fd, b, 100, 1 << 20));
    one("read nothing", iocb(IOCB_CMD_PREAD, fd, b, 0, 0));
    one("write nothing", iocb(IOCB_CMD_PWRITE, fd, a, 0, 0));
    show("the position stays", "%ld", (long)lseek(fd, 0, SEEK_CUR));
    one("read to a bad address", iocb(IOCB_CMD_PREAD, fd, bad_address, 10, 0));
    one("read to a far address", iocb(IOCB_CMD_PREAD, fd, (void *)(1ul << 63), 10, 0));
    one("write from a bad address", iocb(IOCB_CMD_PWRITE, fd, bad_address, 10, 0));
    one("read at -1", iocb(IOCB_CMD_PREAD, fd, b, 10, -1));
    one("write at -5000", iocb(IOCB_CMD_PWRITE, fd, b, 10, -5000));
    one("a negative length", iocb(IOCB_CMD_PREAD, fd, b, -1, 0));
    struct iovec v[3] = {{b, 3}, {b + 100, 0}, {b + 200, 4}};
    memcpy(b, "123", 3);
    memcpy(b + 200, "4567", 4);
    one("pwritev", iocb(IOCB_CMD_PWRITEV, fd, v, 3, 0));
    memset(b, 0, 300);
    one("preadv", iocb(IOCB_CMD_PREADV, fd, v, 3, 0));
    CHECK("scattered", memcmp(b, "123", 3) == 0 && memcmp(b + 200, "4567", 4) == 0);
    one("preadv of none", iocb(IOCB_CMD_PREADV, fd, v, 0, 0));
    one("preadv of too many", iocb(IOCB_CMD_PREADV, fd, v, 1025, 0));
    one("preadv from a bad address", iocb(IOCB_CMD_PREADV, fd, bad_address, 1, 0));
    v[1].iov_len = -1;
    one("preadv of a negative length", iocb(IOCB_CMD_PREADV, fd, v, 3, 0));
    v[1].iov_len = 1, v[1].iov_base = (void *)(1ul << 63);
    one("preadv to a far address", iocb(IOCB_CMD_PREADV, fd, v, 3, 0));
    v[1].iov_base = bad_address;
    one("preadv to a bad address", iocb(IOCB_CMD_PREADV, fd, v, 3, 0));
    one("fsync", iocb(IOCB_CMD_FSYNC, fd, 0, 0, 0));
    one("fdsync", iocb(IOCB_CMD_FDSYNC, fd, 0, 0, 0));
    one("fsync with a buffer", iocb(IOCB_CMD_FSYNC, fd, b, 0, 0));
    one("fsync with a length", iocb(IOCB_CMD_FSYNC, fd, 0, 1, 0));
    one("fsync with an offset", iocb(IOCB_CMD_FDSYNC, fd, 0, 0, 1));
    struct iocb cb = iocb(IOCB_CMD_FSYNC, fd, 0, 0, 0);
    cb.aio_rw_flags = RWF_DSYNC;
    one("fsync with flags", cb);
    cb = iocb(IOCB_CMD_PREAD, fd, b, 10, 0);
    cb.aio_reserved2 = 1;
    one("a reserved field", cb);
    for (int op = 4; op < 16; op++)
        if (op != IOCB_CMD_POLL && op != IOCB_CMD_PREADV && op != IOCB_CMD_PWRITEV)
            one(CASE("operation %d", op), iocb(op, fd, b, 10, 0));
    one("operation 65535", iocb(65535, fd, b, 10, 0));
    static const unsigned flags[] = {RWF_HIPRI, RWF_DSYNC, RWF_SYNC, RWF_NOWAIT, RWF_APPEND, 1u << 20, 1u << 31};
    for (int i = 0; i < 7; i++)
        for (int write = 0; write < 2; write++) {
            if (flags[i] == RWF_HIPRI || (flags[i] == RWF_NOWAIT && write))
                continue;
            cb = iocb(write, fd, b, 10, 0);
            cb.aio_rw_flags = flags[i];
            one(CASE("%s with flags %x", write ? "write" : "read", flags[i]), cb);
        }
    show("RWF_APPEND appends", "%ld", (long)lseek(fd, 0, SEEK_END));
    static const struct {
        const char *name;
        short priority;
    } priorities[] = {{"none", 0}, {"none with a level", 3}, {"real time", 1 << 13}, {"best effort", 2 << 13 | 4}, {"idle", 3 << 13}, {"bad", 7 << 13 | 1}};
    for (unsigned i = 0; i < sizeof priorities / sizeof *priorities; i++) {
        cb = iocb(IOCB_CMD_PREAD, fd, b, 10, 0);
        cb.aio_flags = IOCB_FLAG_IOPRIO;
        cb.aio_reqprio = priorities[i].priority;
        one(CASE("priority: %s", priorities[i].name), cb);
    }
    cb = iocb(IOCB_CMD_PREAD, fd, b, 10, 0);
    cb.aio_reqprio = 9;
    one("a priority without its flag", cb);
    cb.aio_flags = 1 << 20;
    one("unknown flags", cb);
    int append = open("file", O_WRONLY | O_APPEND);
    one("write to O_APPEND", iocb(IOCB_CMD_PWRITE, append, "xyz", 3, 0));
    show("its size", "%ld", (long)lseek(fd, 0, SEEK_END));
    one("read of O_WRONLY", iocb(IOCB_CMD_PREAD, append, b, 3, 0));
    close(append);
    int only = open("file", O_RDONLY);
    one("write to O_RDONLY", iocb(IOCB_CMD_PWRITE, only, b, 3, 0));
    one("fsync of O_RDONLY", iocb(IOCB_CMD_FSYNC, only, 0, 0, 0));
    close(only);
    int path = open("file", O_PATH);
    one("read of O_PATH", iocb(IOCB_CMD_PREAD, path, b, 3, 0));
    close(path);
    one("a closed descriptor", iocb(IOCB_CMD_PREAD, path, b, 3, 0));
    one("descriptor -1", iocb(IOCB_CMD_PREAD, -1, b, 3, 0));
    int dir = open(".", O_RDONLY);
    one("read of a directory", iocb(IOCB_CMD_PREAD, dir, b, 3, 0));
    one("fsync of a directory", iocb(IOCB_CMD_FSYNC, dir, 0, 0, 0));
    one("poll of a directory", iocb(IOCB_CMD_POLL, dir, (void *)POLLIN, 0, 0));
    close(dir);
    one("poll of a file", iocb(IOCB_CMD_POLL, fd, (void *)(POLLIN | POLLOUT), 0, 0));
    one("poll of a file for POLLPRI and POLLIN", iocb(IOCB_CMD_POLL, fd, (void *)(POLLPRI | POLLIN), 0, 0));
    one("poll with a length", iocb(IOCB_CMD_POLL, fd, (void *)POLLIN, 1, 0));
    one("poll with an offset", iocb(IOCB_CMD_POLL, fd, (void *)POLLIN, 0, 1));
    one("poll for too much", iocb(IOCB_CMD_POLL, fd, (void *)0x10001, 0, 0));
    cb = iocb(IOCB_CMD_POLL, fd, (void *)POLLIN, 0, 0);
    cb.aio_rw_flags = RWF_NOWAIT;
    one("poll with flags", cb);
    // A mapping that the file takes from, as the device would.
    char *shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    one("write what is mapped", iocb(IOCB_CMD_PWRITE, fd, "mapped", 6, 20));
    CHECK("the mapping shows it", memcmp(shared + 20, "mapped", 6) == 0);
    munmap(shared, 4096);
    // Larger than what moves at once.
    size_t much = 5 << 20;
    char *big = malloc(much), *back = malloc(much);
    for (size_t i = 0; i < much; i++)
        big[i] = i * 7 + i / 4096;
    one("write 5 MiB", iocb(IOCB_CMD_PWRITE, fd, big, much, 0));
    one("read 5 MiB", iocb(IOCB_CMD_PREAD, fd, back, much, 0));
    CHECK("the same", memcmp(big, back, much) == 0);
    free(big), free(back);
    close(fd);
}

static void others(void) {
    char b[64] = "hello";
    int p[2], s[2];
    if (pipe(p) != 0 || socketpair(AF_UNIX, SOCK_STREAM, 0, s) != 0)
        return;
    one("write to a pipe", iocb(IOCB_CMD_PWRITE, p[1], b, 5, 0));
    one("write to a pipe at an offset", iocb(IOCB_CMD_PWRITE, p[1], b, 5, 1000));
    one("read from a pipe", iocb(IOCB_CMD_PREAD, p[0], b, 64, 99));
    one("fsync of a pipe", iocb(IOCB_CMD_FSYNC, p[0], 0, 0, 0));
    one("read of the write end", iocb(IOCB_CMD_PREAD, p[1], b, 5, 0));
    fcntl(p[0], F_SETFL, O_NONBLOCK);
    one("read from an empty pipe", iocb(IOCB_CMD_PREAD, p[0], b, 64, 0));
    struct iocb cb = iocb(IOCB_CMD_PREAD, p[0], b, 64, 0);
    cb.aio_rw_flags = RWF_NOWAIT;
    fcntl(p[0], F_SETFL, 0);
    one("read from an empty pipe with RWF_NOWAIT", cb);
    close(p[1]);
    one("read from a pipe without writers", iocb(IOCB_CMD_PREAD, p[0], b, 64, 0));
    close(p[0]);
    if (pipe(p) != 0)
        return;
    close(p[0]);
    signal(SIGPIPE, SIG_IGN);
    one("write to a pipe without readers", iocb(IOCB_CMD_PWRITE, p[1], b, 5, 0));
    close(p[1]);
    one("write to a socket", iocb(IOCB_CMD_PWRITE, s[0], b, 5, 0));
    one("read from a socket", iocb(IOCB_CMD_PREAD, s[1], b, 64, 0));
    one("fsync of a socket", iocb(IOCB_CMD_FSYNC, s[0], 0, 0, 0));
    fcntl(s[1], F_SETFL, O_NONBLOCK);
    one("read from an empty socket", iocb(IOCB_CMD_PREAD, s[1], b, 64, 0));
    close(s[0]);
    one("read from a socket at its end", iocb(IOCB_CMD_PREAD, s[1], b, 64, 0));
    one("write to a socket at its end", iocb(IOCB_CMD_PWRITE, s[1], b, 5, 0));
    close(s[1]);
    int e = eventfd(3, EFD_NONBLOCK);
    one("read an eventfd", iocb(IOCB_CMD_PREAD, e, b, 8, 0));
    one("read an eventfd at zero", iocb(IOCB_CMD_PREAD, e, b, 8, 0));
    one("write an eventfd", iocb(IOCB_CMD_PWRITE, e, b, 8, 0));
    one("fsync an eventfd", iocb(IOCB_CMD_FSYNC, e, 0, 0, 0));
    close(e);
    static const struct {
        const char *path;
        int flags;
    } paths[] = {{"/dev/null", O_RDWR}, {"/dev/zero", O_RDWR}};
    for (int i = 0; i < 2; i++) {
        int fd = open(paths[i].path, paths[i].flags);
        one(CASE("read %s", paths[i].path), iocb(IOCB_CMD_PREAD, fd, b, 10, 0));
        one(CASE("write %s", paths[i].path), iocb(IOCB_CMD_PWRITE, fd, b, 10, 0));
        one(CASE("fsync %s", paths[i].path), iocb(IOCB_CMD_FSYNC, fd, 0, 0, 0));
        close(fd);
    }
    int i = inotify_init1(IN_NONBLOCK);
    one("read of an inotify", iocb(IOCB_CMD_PREAD, i, b, 64, 0));
    close(i);
    int ep = epoll_create1(0);
    one("read of an epoll", iocb(IOCB_CMD_PREAD, ep, b, 64, 0));
    close(ep);
}

static void lists(void) {
    static char b[16];
    int fd = open("file", O_RDWR | O_CREAT, 0644);
    struct iocb cb[8], *list[8];
    for (int i = 0; i < 8; i++) {
        cb[i] = iocb(IOCB_CMD_PREAD, fd, b, 1, 0);
        cb[i].aio_data = i;
        list[i] = &cb[i];
    }
    struct io_event e[16];
    struct timespec zero = {0, 0}, soon = {0, 20000000};
    RESULT("submit 0", submit(ctx, 0, list));
    RESULT("submit 0 from nowhere", submit(ctx, 0, NULL));
    RESULT("submit -1", submit(ctx, -1, list));
    RESULT("submit from a bad address", submit(ctx, 1, bad_address));
    RESULT("submit 8", submit(ctx, 8, list));
    RESULT("take 3", getevents(ctx, 3, 3, e, NULL));
    show("in order", "%lld %lld %lld", e[0].data, e[1].data, e[2].data);
    RESULT("take at most 16", getevents(ctx, 1, 16, e, NULL));
    show("in order", "%lld %lld", e[0].data, e[4].data);
    RESULT("take without waiting", getevents(ctx, 1, 16, e, &zero));
    RESULT("take in vain", getevents(ctx, 1, 16, e, &soon));
    RESULT("take none", getevents(ctx, 0, 16, e, NULL));
    cb[2].aio_fildes = -1;
    RESULT("submit 8 of which the third is bad", submit(ctx, 8, list));
    RESULT("two are done", getevents(ctx, 0, 16, e, &zero));
    RESULT("submit from the bad one on", submit(ctx, 6, list + 2));
    list[1] = bad_address;
    RESULT("submit with a bad second", submit(ctx, 3, list));
    list[0] = bad_address;
    RESULT("submit with a bad first", submit(ctx, 3, list));
    RESULT("one is done", getevents(ctx, 0, 16, e, &zero));
    struct iocb *constant = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    *constant = iocb(IOCB_CMD_PREAD, fd, b, 1, 0);
    mprotect(constant, 4096, PROT_READ);
    list[0] = constant;
    RESULT("a constant iocb", submit(ctx, 1, list));
    RESULT("more than are there, soon", getevents(ctx, 5, 16, e, &soon));
    list[0] = &cb[0], list[1] = &cb[1];
    submit(ctx, 2, list);
    RESULT("5 at least of 2", getevents(ctx, 5, 16, e, &soon));
    RESULT("they are gone", getevents(ctx, 0, 16, e, &zero));
    RESULT("least above most", getevents(ctx, 2, 1, e, &zero));
    RESULT("least negative", getevents(ctx, -1, 1, e, &zero));
    RESULT("most negative", getevents(ctx, 0, -1, e, &zero));
    RESULT("nothing at most", getevents(ctx, 0, 0, e, &zero));
    submit(ctx, 2, list);
    RESULT("events to a bad address", getevents(ctx, 1, 2, bad_address, &zero));
    RESULT("they are still there", getevents(ctx, 1, 2, e, &zero));
    RESULT("a bad time", getevents(ctx, 1, 2, e, (void *)bad_address));
    soon.tv_nsec = 2000000000;
    submit(ctx, 2, list);
    RESULT("odd nanoseconds", getevents(ctx, 1, 2, e, &soon));
    submit(ctx, 1, list);
    soon = (struct timespec){-1, 0};
    RESULT("a negative time", getevents(ctx, 1, 2, e, &soon));
    // A program may take events by itself.
    struct ring *r = (void *)ctx;
    submit(ctx, 2, list);
    unsigned head = r->head;
    show("in the ring", "%u", (r->tail + r->nr - r->head) % r->nr);
    show("the first one's data", "%lld", r->events[head].data);
    r->head = (head + 1) % r->nr;
    RESULT("the kernel has the rest", getevents(ctx, 0, 16, e, &zero));
    show("the second one's data", "%lld", e[0].data);
    // Full, and around the end.
    aio_context_t small = 0;
    setup(1, &small);
    r = (void *)small;
    unsigned n = 0;
    while (n < 100000 && submit(small, 1, list) == 1)
        n++;
    CHECK("a ring becomes full", n < r->nr && n > r->nr / 2);
    RESULT("then", submit(small, 1, list));
    static struct io_event all[4096];
    CHECK("all of them", getevents(small, 0, 4096, all, &zero) == n);
    int good = 1;
    for (int round = 0; round < 300; round++) {
        cb[0].aio_data = round;
        good &= submit(small, 2, list) == 2 && getevents(small, 2, 2, all, NULL) == 2 && all[0].data == round && all[1].data == 1;
    }
    CHECK("around and around", good);
    destroy(small);
    close(fd);
}

static void eventfds(void) {
    static char b[16];
    int fd = open("file", O_RDWR | O_CREAT, 0644), counter = eventfd(0, EFD_NONBLOCK);
    struct iocb cb = iocb(IOCB_CMD_PREAD, fd, b, 1, 0), *list[] = {&cb, &cb};
    cb.aio_flags = IOCB_FLAG_RESFD;
    cb.aio_resfd = counter;
    one("with an eventfd", cb);
    unsigned long long count = 0;
    RESULT("it counts", read(counter, &count, 8));
    show("count", "%llu", count);
    RESULT("twice", submit(ctx, 2, list));
    RESULT("it counts", read(counter, &count, 8));
    show("count", "%llu", count);
    struct io_event e[2];
    RESULT("taken", getevents(ctx, 2, 2, e, NULL));
    cb.aio_resfd = fd;
    one("with another file", cb);
    cb.aio_resfd = 999;
    one("with a closed one", cb);
    cb.aio_resfd = counter;
    cb.aio_fildes = -1;
    one("of a closed file", cb);
    RESULT("it does not count", read(counter, &count, 8));
    cb.aio_flags = 0;
    cb.aio_fildes = fd;
    one("without the flag", cb);
    RESULT("it does not count", read(counter, &count, 8));
    close(fd);
    close(counter);
}

static void polls(void) {
    int p[2], counter = eventfd(0, EFD_NONBLOCK);
    if (pipe(p) != 0)
        return;
    struct io_event e[4];
    struct timespec zero = {0, 0};
    struct iocb cb = iocb(IOCB_CMD_POLL, p[0], (void *)POLLIN, 0, 0), other = cb, *list[] = {&cb}, *second[] = {&other};
    one("poll an end that is ready", iocb(IOCB_CMD_POLL, p[1], (void *)POLLOUT, 0, 0));
    RESULT("poll an empty pipe", submit(ctx, 1, list));
    RESULT("nothing yet", getevents(ctx, 0, 4, e, &zero));
    RESULT("write", write(p[1], "x", 1));
    RESULT("now", getevents(ctx, 1, 4, e, NULL));
    // A waker may tell of more than was asked for.
    show("what", "%llx data %lld %d", e[0].res & POLLIN, e[0].data, e[0].obj == (unsigned long)&cb);
    RESULT("once only", getevents(ctx, 0, 4, e, &zero));
    RESULT("poll a full pipe", submit(ctx, 1, list));
    RESULT("at once", getevents(ctx, 1, 4, e, NULL));
    char c;
    RESULT("read", read(p[0], &c, 1));
    other.aio_data = 5;
    cb.aio_flags = IOCB_FLAG_RESFD;
    cb.aio_resfd = counter;
    submit(ctx, 1, list), submit(ctx, 1, second);
    RESULT("cancel", cancel(ctx, &cb));
    RESULT("again", cancel(ctx, &cb));
    // Linux ends a cancelled request a moment later.
    RESULT("its event", getevents(ctx, 1, 4, e, NULL));
    show("what", "%llx %d", e[0].res, e[0].obj == (unsigned long)&cb);
    unsigned long long count = 0;
    RESULT("the eventfd", read(counter, &count, 8));
    cb.aio_key = 3;
    RESULT("cancel with another key", cancel(ctx, &cb));
    RESULT("cancel a bad address", cancel(ctx, bad_address));
    struct iocb never = iocb(IOCB_CMD_PREAD, p[0], &c, 1, 0);
    RESULT("cancel what was not submitted", cancel(ctx, &never));
    close(p[1]);
    RESULT("the writers go", getevents(ctx, 1, 4, e, NULL));
    show("what", "%llx data %lld", e[0].res, e[0].data);
    close(p[0]);

    int s[2];
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, s) != 0 || pipe(p) != 0)
        return;
    // The descriptor may be closed meanwhile.
    cb = iocb(IOCB_CMD_POLL, s[0], (void *)POLLIN, 0, 0);
    submit(ctx, 1, list);
    close(s[0]);
    RESULT("write to who is polled", write(s[1], "x", 1));
    RESULT("an event", getevents(ctx, 1, 4, e, NULL));
    show("what", "%llx", e[0].res & POLLIN);
    close(s[1]);
    // An eventfd that is polled, and that counts its own polling.
    cb = iocb(IOCB_CMD_POLL, counter, (void *)POLLIN, 0, 0);
    RESULT("poll an eventfd", submit(ctx, 1, list));
    count = 7;
    RESULT("add", write(counter, &count, 8));
    RESULT("an event", getevents(ctx, 1, 4, e, NULL));
    show("what", "%llx", e[0].res & POLLIN);
    read(counter, &count, 8);
    // An epoll set.
    int ep = epoll_create1(0);
    struct epoll_event ev = {.events = EPOLLIN};
    epoll_ctl(ep, EPOLL_CTL_ADD, p[0], &ev);
    cb = iocb(IOCB_CMD_POLL, ep, (void *)POLLIN, 0, 0);
    RESULT("poll a set", submit(ctx, 1, list));
    RESULT("nothing yet", getevents(ctx, 0, 4, e, &zero));
    RESULT("write", write(p[1], "x", 1));
    RESULT("an event", getevents(ctx, 1, 4, e, NULL));
    show("what", "%llx", e[0].res & POLLIN);
    close(ep);
    // A context may go with requests in it.
    aio_context_t c2 = 0;
    setup(4, &c2);
    read(p[0], &c, 1);
    cb = iocb(IOCB_CMD_POLL, p[0], (void *)POLLIN, 0, 0);
    RESULT("poll in another context", submit(c2, 1, list));
    RESULT("cancel in the wrong one", cancel(ctx, &cb));
    RESULT("destroy", destroy(c2));
    RESULT("write", write(p[1], "x", 1));
    close(p[0]), close(p[1]), close(counter);
}

static void handler(int n) { (void)n; }

static void *later(void *arg) {
    usleep(30000);
    int *fd = arg;
    if (write(*fd, "x", 1) != 1)
        exit(98);
    return NULL;
}

static void *destroyer(void *arg) {
    usleep(30000);
    destroy(*(aio_context_t *)arg);
    return NULL;
}

static void *killer(void *arg) {
    usleep(30000);
    pthread_kill(*(pthread_t *)arg, SIGUSR1);
    return NULL;
}

static void waiting(void) {
    pthread_t t, me = pthread_self();
    int p[2];
    if (pipe(p) != 0)
        return;
    struct iocb cb = iocb(IOCB_CMD_POLL, p[0], (void *)POLLIN, 0, 0), *list[] = {&cb};
    struct io_event e[4];
    submit(ctx, 1, list);
    pthread_create(&t, NULL, later, &p[1]);
    RESULT("wait for another thread", getevents(ctx, 1, 4, e, NULL));
    pthread_join(t, NULL);
    char c;
    read(p[0], &c, 1);
    // A read of a pipe waits where it is submitted.
    cb = iocb(IOCB_CMD_PREAD, p[0], &c, 1, 0);
    pthread_create(&t, NULL, later, &p[1]);
    RESULT("submit a read of an empty pipe", submit(ctx, 1, list));
    pthread_join(t, NULL);
    RESULT("its event", getevents(ctx, 1, 4, e, NULL));
    show("what", "%lld %c", e[0].res, c);

    static const int restart[] = {0, SA_RESTART};
    for (int i = 0; i < 2; i++) {
        struct sigaction a = {.sa_handler = handler, .sa_flags = restart[i]};
        sigaction(SIGUSR1, &a, NULL);
        struct timespec long_time = {5, 0};
        pthread_create(&t, NULL, killer, &me);
        RESULT(CASE("a signal while waiting %d", i), getevents(ctx, 1, 4, e, &long_time));
        pthread_join(t, NULL);
        struct { const sigset_t *set; size_t size; } mask = {NULL, 0};
        pthread_create(&t, NULL, killer, &me);
        RESULT(CASE("a signal while waiting with no mask %d", i), pgetevents(ctx, 1, 4, e, &long_time, &mask));
        pthread_join(t, NULL);
        int fd = open("file", O_RDWR | O_CREAT, 0644);
        struct iocb done = iocb(IOCB_CMD_PREAD, fd, &c, 1, 0), *one_list[] = {&done};
        submit(ctx, 1, one_list);
        pthread_create(&t, NULL, killer, &me);
        RESULT(CASE("a signal with one of two there %d", i), getevents(ctx, 2, 4, e, &long_time));
        pthread_join(t, NULL);
        close(fd);
    }
    sigset_t none, usr1;
    sigemptyset(&none);
    sigemptyset(&usr1);
    sigaddset(&usr1, SIGUSR1);
    sigprocmask(SIG_BLOCK, &usr1, NULL);
    raise(SIGUSR1);
    struct { const sigset_t *set; size_t size; } mask = {&none, 8};
    struct timespec short_time = {0, 30000000};
    RESULT("a pending signal and its mask", pgetevents(ctx, 1, 4, e, &short_time, &mask));
    sigset_t now;
    sigprocmask(SIG_SETMASK, NULL, &now);
    CHECK("the mask is back", sigismember(&now, SIGUSR1));
    RESULT("nothing pending", pgetevents(ctx, 1, 4, e, &short_time, &mask));
    mask.size = 4;
    RESULT("a bad size of the mask", pgetevents(ctx, 1, 4, e, &short_time, &mask));
    mask.size = 8, mask.set = bad_address;
    RESULT("a bad mask", pgetevents(ctx, 1, 4, e, &short_time, &mask));
    RESULT("a bad pair", pgetevents(ctx, 1, 4, e, &short_time, bad_address));
    RESULT("no pair", pgetevents(ctx, 1, 4, e, &short_time, NULL));
    sigprocmask(SIG_UNBLOCK, &usr1, NULL);
    aio_context_t gone = 0;
    setup(4, &gone);
    pthread_create(&t, NULL, destroyer, &gone);
    RESULT("destroyed while waiting", getevents(gone, 1, 4, e, NULL));
    pthread_join(t, NULL);
    close(p[0]), close(p[1]);
}

static void children(const char *self) {
    struct io_event e[4];
    struct timespec zero = {0, 0};
    int fd = open("file", O_RDWR | O_CREAT, 0644);
    char c;
    struct iocb cb = iocb(IOCB_CMD_PREAD, fd, &c, 1, 0), *list[] = {&cb};
    submit(ctx, 1, list);
    fflush(stdout);
    pid_t pid = fork();
    if (!pid) {
        struct ring *r = (void *)ctx;
        show("a child sees the ring", "%x", r->magic);
        RESULT("but has no context", getevents(ctx, 0, 4, e, &zero));
        RESULT("nor can it submit", submit(ctx, 1, list));
        RESULT("nor destroy", destroy(ctx));
        aio_context_t own = 0;
        RESULT("it makes its own", setup(4, &own));
        show("its id", "%u", ((struct ring *)own)->id);
        RESULT("and uses it", submit(own, 1, list));
        RESULT("event", getevents(own, 1, 4, e, NULL));
        exit(0);
    }
    int status;
    waitpid(pid, &status, 0);
    show("the child", "%d", status);
    RESULT("the parent's event is there", getevents(ctx, 1, 4, e, &zero));
    pid = vfork();
    if (!pid) {
        // The same memory, and so the same contexts.
        long n = submit(ctx, 1, list);
        _exit(n == 1 ? 7 : 8);
    }
    waitpid(pid, &status, 0);
    show("a child of vfork", "%d", WEXITSTATUS(status));
    RESULT("its event is there", getevents(ctx, 1, 4, e, &zero));
    fflush(stdout);
    pid = fork();
    if (!pid) {
        char text[32];
        aio_context_t own = 0;
        setup(4, &own);
        snprintf(text, sizeof text, "%lu", own);
        execl(self, self, "after exec", text, NULL);
        _exit(99);
    }
    waitpid(pid, &status, 0);
    show("after exec", "%d", WEXITSTATUS(status));
    close(fd);
}

int main(int argc, char **argv) {
    if (argc == 3) {
        struct io_event e;
        struct timespec zero = {0, 0};
        return getevents(strtoul(argv[2], NULL, 10), 0, 1, &e, &zero) == -1 && errno == EINVAL ? 5 : 6;
    }
    char self[4096] = "";
    if (readlink("/proc/self/exe", self, sizeof self - 1) < 0)
        return 97;
    scratch();
    contexts();
    RESULT("a context", setup(64, &ctx));
    files();
    others();
    lists();
    eventfds();
    polls();
    waiting();
    children(self);
    RESULT("destroy", destroy(ctx));
    return 0;
}

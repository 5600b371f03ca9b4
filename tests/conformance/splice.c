// splice, tee, vmsplice, sendfile, copy_file_range: what goes where, which positions move, and which errors come first.
#include "check.h"
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/wait.h>

static int p[2], q[2], fd, out, null, zero, pair[2], dirfd_, ep;
static char buffer[200000];

static void reset(void) {
    for (int i = 0; i < 2; i++)
        close(p[i]), close(q[i]);
    pipe2(p, O_NONBLOCK), pipe2(q, O_NONBLOCK);
    close(fd), close(out);
    fd = open("in", O_CREAT | O_RDWR | O_TRUNC, 0644);
    write(fd, "abcdefghijklmnopqrstuvwxyz", 26);
    lseek(fd, 0, SEEK_SET);
    out = open("out", O_CREAT | O_RDWR | O_TRUNC, 0644);
}

static void state(const char *name) {
    memset(buffer, 0, 64);
    ssize_t n = pread(out, buffer, 60, 0);
    show(name, "in at %ld, out at %ld, out has %zd \"%s\"", (long)lseek(fd, 0, SEEK_CUR), (long)lseek(out, 0, SEEK_CUR), n, buffer);
}

static void drain(const char *name, int from) {
    memset(buffer, 0, 64);
    ssize_t n = read(from, buffer, 60);
    show(name, "%zd \"%.60s\"", n, n > 0 ? buffer : "");
}

static void splices(void) {
    loff_t at = 3, to = 5;
    reset();
    RESULT("file to pipe", splice(fd, NULL, p[1], NULL, 5, 0));
    RESULT("file to pipe at an offset", splice(fd, &at, p[1], NULL, 5, 0));
    show("offset", "%ld", (long)at);
    RESULT("pipe to file", splice(p[0], NULL, out, NULL, 7, 0));
    RESULT("pipe to file at an offset", splice(p[0], NULL, out, &to, 7, 0));
    show("offset", "%ld", (long)to);
    state("files");
    RESULT("empty pipe", splice(p[0], NULL, out, NULL, 7, 0));
    RESULT("nothing", splice(p[0], NULL, out, NULL, 0, 0));
    at = 26;
    RESULT("at the end", splice(fd, &at, p[1], NULL, 5, 0));
    at = 20;
    RESULT("over the end", splice(fd, &at, p[1], NULL, 50, 0));
    RESULT("pipe to pipe", splice(p[0], NULL, q[1], NULL, 4, 0));
    drain("which has", q[0]);
    drain("the rest", p[0]);
    RESULT("pipe to pipe when empty", splice(p[0], NULL, q[1], NULL, 4, 0));
    RESULT("pipe to itself", splice(p[0], NULL, p[1], NULL, 4, 0));
    RESULT("file to file", splice(fd, NULL, out, NULL, 4, 0));
    at = 0;
    RESULT("pipe with an offset", splice(p[0], &at, out, NULL, 4, 0));
    RESULT("into a pipe with an offset", splice(fd, NULL, p[1], &at, 4, 0));
    RESULT("unknown flags", splice(fd, NULL, p[1], NULL, 4, 64));
    RESULT("no descriptor", splice(99, NULL, p[1], NULL, 4, 0));
    RESULT("no target", splice(fd, NULL, 99, NULL, 4, 0));
    RESULT("the wrong end to write", splice(fd, NULL, p[0], NULL, 4, 0));
    RESULT("the wrong end to read", splice(p[1], NULL, out, NULL, 4, 0));
    at = -1;
    RESULT("a negative offset", splice(fd, &at, p[1], NULL, 4, 0));
    RESULT("an offset nowhere", splice(fd, (void *)8, p[1], NULL, 4, 0));
    int ro = open("in", O_RDONLY), ap = open("out", O_WRONLY | O_APPEND), pa = open("in", O_PATH);
    write(p[1], "data", 4);
    RESULT("into what is read only", splice(p[0], NULL, ro, NULL, 4, 0));
    RESULT("into O_APPEND", splice(p[0], NULL, ap, NULL, 4, 0));
    RESULT("from O_PATH", splice(pa, NULL, p[1], NULL, 4, 0));
    RESULT("from a directory", splice(dirfd_, NULL, p[1], NULL, 4, 0));
    RESULT("from an epoll", splice(ep, NULL, p[1], NULL, 4, 0));
    RESULT("into /dev/null", splice(p[0], NULL, null, NULL, 4, 0));
    RESULT("from /dev/null", splice(null, NULL, p[1], NULL, 4, 0));
    RESULT("from /dev/zero", splice(zero, NULL, p[1], NULL, 4, 0));
    drain("zeroes", p[0]);
    close(ro), close(ap), close(pa);
    write(pair[0], "socket", 6);
    RESULT("socket to pipe", splice(pair[1], NULL, p[1], NULL, 4, 0));
    RESULT("the rest", splice(pair[1], NULL, p[1], NULL, 40, 0));
    fcntl(pair[1], F_SETFL, O_NONBLOCK);
    RESULT("an empty socket", splice(pair[1], NULL, p[1], NULL, 40, 0));
    RESULT("pipe to socket", splice(p[0], NULL, pair[1], NULL, 40, 0));
    drain("through the socket", pair[0]);
    RESULT("a socket with an offset", splice(pair[1], &to, p[1], NULL, 40, 0));
    for (int i = 0; i < 16; i++)
        write(p[1], buffer, 4096);
    RESULT("a full pipe", splice(fd, NULL, p[1], NULL, 4, 0));
    RESULT("a full pipe, SPLICE_F_NONBLOCK", splice(fd, NULL, p[1], NULL, 4, SPLICE_F_NONBLOCK));
    close(p[0]);
    RESULT("nobody reads", splice(fd, NULL, p[1], NULL, 4, 0));
    reset();
    close(p[1]);
    RESULT("nobody writes", splice(p[0], NULL, out, NULL, 4, 0));
    p[1] = -1;
    int blocking[2];
    pipe(blocking);
    pid_t pid = fork();
    if (!pid) {
        usleep(20000);
        write(blocking[1], "late", 4);
        _exit(0);
    }
    RESULT("splice waits for bytes", splice(blocking[0], NULL, out, NULL, 10, 0));
    waitpid(pid, 0, 0);
    state("which came");
    RESULT("it does not with SPLICE_F_NONBLOCK", splice(blocking[0], NULL, out, NULL, 10, SPLICE_F_NONBLOCK));
    close(blocking[0]), close(blocking[1]);
}

static void tees(void) {
    reset();
    write(p[1], "0123456789", 10);
    RESULT("tee", tee(p[0], q[1], 4, 0));
    RESULT("tee again", tee(p[0], q[1], 400, 0));
    drain("twice the start", q[0]);
    drain("all is there yet", p[0]);
    RESULT("tee of nothing", tee(p[0], q[1], 4, 0));
    RESULT("tee zero", tee(p[0], q[1], 0, 0));
    RESULT("tee to itself", tee(p[0], p[1], 4, 0));
    RESULT("tee of a file", tee(fd, q[1], 4, 0));
    RESULT("tee into a file", tee(p[0], out, 4, 0));
    RESULT("tee unknown flag", tee(p[0], q[1], 4, 99));
    RESULT("tee the wrong way", tee(p[1], q[0], 4, 0));
    RESULT("tee no descriptor", tee(99, q[1], 4, 0));
    write(p[1], "x", 1);
    close(q[0]);
    RESULT("tee without a reader", tee(p[0], q[1], 4, 0));
}

static void vmsplices(void) {
    reset();
    struct iovec v[2] = {{"hello ", 6}, {"world", 5}};
    RESULT("vmsplice", vmsplice(p[1], v, 2, 0));
    RESULT("vmsplice of nothing", vmsplice(p[1], v, 0, 0));
    drain("got", p[0]);
    char a[4], b[4];
    struct iovec r[2] = {{a, 4}, {b, 4}};
    write(p[1], "ABCDEF", 6);
    RESULT("vmsplice from a pipe", vmsplice(p[0], r, 2, 0));
    show("got", "%.4s %.2s", a, b);
    RESULT("vmsplice from an empty pipe", vmsplice(p[0], r, 2, SPLICE_F_NONBLOCK));
    RESULT("vmsplice to a file", vmsplice(fd, v, 2, 0));
    RESULT("vmsplice unknown flag", vmsplice(p[1], v, 2, 256));
    RESULT("vmsplice too many", vmsplice(p[1], v, 1025, 0));
    struct iovec bad = {(void *)8, 4};
    RESULT("vmsplice from nowhere", vmsplice(p[1], &bad, 1, 0));
    struct iovec big = {buffer, sizeof buffer};
    RESULT("vmsplice more than fits", vmsplice(p[1], &big, 1, SPLICE_F_NONBLOCK) > 0);
    RESULT("vmsplice into a full pipe", vmsplice(p[1], &big, 1, SPLICE_F_NONBLOCK));
    close(p[0]);
    RESULT("vmsplice without a reader", vmsplice(p[1], v, 1, SPLICE_F_NONBLOCK));
    p[0] = -1;
}

static void sendfiles(void) {
    reset();
    off_t at = 2;
    RESULT("sendfile to a file", sendfile(out, fd, NULL, 5));
    RESULT("sendfile at an offset", sendfile(out, fd, &at, 5));
    show("offset", "%ld", (long)at);
    state("files");
    RESULT("sendfile beyond the end", sendfile(out, fd, NULL, 500));
    RESULT("sendfile at the end", sendfile(out, fd, NULL, 500));
    RESULT("sendfile of nothing", sendfile(out, fd, NULL, 0));
    RESULT("sendfile to a pipe", sendfile(p[1], fd, (at = 0, &at), 5));
    drain("pipe", p[0]);
    RESULT("sendfile from a pipe", sendfile(out, p[0], NULL, 5));
    RESULT("sendfile to a socket", sendfile(pair[1], fd, (at = 0, &at), 5));
    drain("socket", pair[0]);
    RESULT("sendfile from a socket", sendfile(out, pair[1], NULL, 5));
    RESULT("sendfile to the read end", sendfile(p[0], fd, NULL, 5));
    RESULT("sendfile to what is read only", sendfile(dirfd_, fd, NULL, 5));
    RESULT("sendfile from a directory", sendfile(out, dirfd_, NULL, 5));
    RESULT("sendfile no descriptor", sendfile(99, fd, NULL, 5));
    RESULT("sendfile from none", sendfile(out, 99, NULL, 5));
    at = -1;
    RESULT("sendfile negative", sendfile(out, fd, &at, 5));
    int ap = open("out", O_WRONLY | O_APPEND);
    RESULT("sendfile to O_APPEND", sendfile(ap, fd, (at = 0, &at), 5));
    close(ap);
    RESULT("sendfile to /dev/null", sendfile(null, fd, (at = 0, &at), 5));
    RESULT("sendfile from /dev/zero", sendfile(out, zero, (at = 0, &at), 5));
    RESULT("sendfile a negative count", sendfile(out, fd, NULL, -1) >= 0);
    for (int i = 0; i < 16; i++)
        write(p[1], buffer, 4096);
    RESULT("sendfile to a full pipe", sendfile(p[1], fd, (at = 0, &at), 5));
}

static void copies(void) {
    reset();
    loff_t a = 1, b = 3;
    RESULT("copy_file_range", copy_file_range(fd, NULL, out, NULL, 5, 0));
    RESULT("copy_file_range at offsets", copy_file_range(fd, &a, out, &b, 5, 0));
    show("offsets", "%ld %ld", (long)a, (long)b);
    state("files");
    RESULT("copy beyond the end", copy_file_range(fd, NULL, out, NULL, 500, 0));
    RESULT("copy at the end", copy_file_range(fd, NULL, out, NULL, 500, 0));
    RESULT("copy nothing", copy_file_range(fd, NULL, out, NULL, 0, 0));
    a = 0, b = 10;
    RESULT("copy within a file", copy_file_range(fd, &a, fd, &b, 5, 0));
    a = 0, b = 3;
    RESULT("copy over itself", copy_file_range(fd, &a, fd, &b, 5, 0));
    RESULT("copy with flags", copy_file_range(fd, NULL, out, NULL, 5, 1));
    RESULT("copy from a pipe", copy_file_range(p[0], NULL, out, NULL, 5, 0));
    RESULT("copy to a pipe", copy_file_range(fd, NULL, p[1], NULL, 5, 0));
    RESULT("copy from a directory", copy_file_range(dirfd_, NULL, out, NULL, 5, 0));
    RESULT("copy from a device", copy_file_range(zero, NULL, out, NULL, 5, 0));
    int ap = open("out", O_WRONLY | O_APPEND), ro = open("in", O_RDONLY), wo = open("out", O_WRONLY);
    RESULT("copy to O_APPEND", copy_file_range(fd, NULL, ap, NULL, 5, 0));
    RESULT("copy to what is read only", copy_file_range(fd, NULL, ro, NULL, 5, 0));
    RESULT("copy from what is write only", copy_file_range(wo, NULL, out, NULL, 5, 0));
    close(ap), close(ro), close(wo);
    RESULT("copy no descriptor", copy_file_range(99, NULL, out, NULL, 5, 0));
    a = -1;
    RESULT("copy at a negative offset", copy_file_range(fd, &a, out, NULL, 5, 0));
    a = 0, b = 1 << 20;
    RESULT("copy far beyond the end", copy_file_range(fd, &a, out, &b, 5, 0));
    struct stat s;
    fstat(out, &s);
    show("size", "%ld", (long)s.st_size);
}

int main(void) {
    scratch();
    signal(SIGPIPE, SIG_IGN);
    p[0] = p[1] = q[0] = q[1] = fd = out = -1;
    null = open("/dev/null", O_RDWR), zero = open("/dev/zero", O_RDWR);
    dirfd_ = open(".", O_RDONLY);
    ep = epoll_create1(0);
    socketpair(AF_UNIX, SOCK_STREAM, 0, pair);
    splices();
    tees();
    vmsplices();
    sendfiles();
    copies();
    return 0;
}

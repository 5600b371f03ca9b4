// Pipes, eventfd, epoll, poll, select between threads; clocks; files.
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/select.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

static double now(void) { struct timespec t; clock_gettime(CLOCK_MONOTONIC, &t); return t.tv_sec + t.tv_nsec / 1e9; }
static void say(const char *what, long a) { printf("%s %ld %s\n", what, a, a < 0 ? strerror(errno) : ""); }
static int pipes[2], event;
static void *sum_bytes(void *arg) {
    unsigned char block[7001];
    long sum = 0, total = 0, n;
    while ((n = read(pipes[0], block, sizeof block)) > 0) { total += n; for (long i = 0; i < n; i++) sum += block[i]; }
    return (void *)(sum * 10000000 + total);
}
static void test_pipes(void) {
    static unsigned char data[300000];
    for (int i = 0; i < 300000; i++) data[i] = i * 7;
    pthread_t t;
    void *result;
    say("pipe", pipe(pipes));
    pthread_create(&t, NULL, sum_bytes, NULL);
    say("write", write(pipes[1], data, sizeof data));
    struct iovec parts[3] = {{data, 10}, {data, 0}, {data + 5, 4000}};
    say("writev", writev(pipes[1], parts, 3));
    close(pipes[1]), pthread_join(t, &result);
    say("sum", (long)result);
    close(pipes[0]);
    say("pipe2", pipe2(pipes, O_NONBLOCK | O_CLOEXEC));
    say("empty", read(pipes[0], data, 10));
    long filled = 0, n;
    while ((n = write(pipes[1], data, 4096)) > 0) filled += n;
    say("filled", filled), say("full", n);
    close(pipes[1]);
    while ((n = read(pipes[0], data, sizeof data)) > 0) filled -= n;
    say("drained", filled), say("end", n);
    say("seek", lseek(pipes[0], 0, SEEK_SET)), say("wrong end", write(pipes[0], data, 1));
    close(pipes[0]);
}
static void *post_later(void *arg) { usleep(60000); uint64_t v = 5; if (write(event, &v, 8) != 8) abort(); return NULL; }
static void test_events(void) {
    uint64_t v;
    event = eventfd(3, EFD_NONBLOCK);
    say("eventfd", read(event, &v, 8)), say("value", v), say("again", read(event, &v, 8)), say("short", read(event, &v, 4));
    v = -1, say("max", write(event, &v, 8)), v = -2, say("almost", write(event, &v, 8)), v = 1, say("over", write(event, &v, 8));
    close(event), event = eventfd(2, EFD_SEMAPHORE | EFD_NONBLOCK);
    say("sem", read(event, &v, 8)), say("sem", v), say("sem", read(event, &v, 8)), say("sem", read(event, &v, 8));
    close(event), event = eventfd(0, 0);
    pthread_t t;
    pthread_create(&t, NULL, post_later, NULL);
    say("blocking", read(event, &v, 8)), say("value", v), pthread_join(t, NULL);
}
static void test_epoll(void) {
    int set = epoll_create1(EPOLL_CLOEXEC), p[2];
    struct epoll_event e = {.events = EPOLLIN, .data.u64 = 11}, out[8];
    if (pipe2(p, O_NONBLOCK)) abort();
    say("add", epoll_ctl(set, EPOLL_CTL_ADD, p[0], &e)), say("twice", epoll_ctl(set, EPOLL_CTL_ADD, p[0], &e));
    say("itself", epoll_ctl(set, EPOLL_CTL_ADD, set, &e)), say("none", epoll_wait(set, out, 8, 0));
    if (write(p[1], "ab", 2) != 2) abort();
    say("level", epoll_wait(set, out, 8, 0)), say("level", epoll_wait(set, out, 8, 0)), say("data", out[0].data.u64);
    char c;
    e.events = EPOLLIN | EPOLLET, say("edge", epoll_ctl(set, EPOLL_CTL_MOD, p[0], &e));
    say("edge", epoll_wait(set, out, 8, 0)), say("edge", epoll_wait(set, out, 8, 0)), say("left", read(p[0], &c, 1));
    epoll_wait(set, out, 8, 0);     // whether a partial read is an edge is not looked at
    if (write(p[1], "c", 1) != 1) abort();
    say("edge", epoll_wait(set, out, 8, 0)), say("edge", epoll_wait(set, out, 8, 0));
    e.events = EPOLLIN | EPOLLONESHOT, say("oneshot", epoll_ctl(set, EPOLL_CTL_MOD, p[0], &e));
    say("oneshot", epoll_wait(set, out, 8, 0)), say("oneshot", epoll_wait(set, out, 8, 0));
    say("again", epoll_ctl(set, EPOLL_CTL_MOD, p[0], &e)), say("oneshot", epoll_wait(set, out, 8, 0));
    close(p[1]), e.events = EPOLLIN, epoll_ctl(set, EPOLL_CTL_MOD, p[0], &e);
    say("hangup", epoll_wait(set, out, 8, 0)), say("hangup", out[0].events);
    close(p[0]), say("closed", epoll_wait(set, out, 8, 0)), say("gone", epoll_ctl(set, EPOLL_CTL_DEL, p[0], &e));
    double t = now();
    say("timeout", epoll_wait(set, out, 8, 50)), say("took", now() - t >= 0.049 && now() - t < 2);
    event = eventfd(0, 0), e.events = EPOLLIN, epoll_ctl(set, EPOLL_CTL_ADD, event, &e);
    pthread_t th;
    pthread_create(&th, NULL, post_later, NULL);
    say("woken", epoll_wait(set, out, 8, -1)), pthread_join(th, NULL);
    int regular = open("/etc/passwd", O_RDONLY);
    say("regular", epoll_ctl(set, EPOLL_CTL_ADD, regular, &e)), say("not a set", epoll_ctl(regular, EPOLL_CTL_ADD, event, &e));
    close(regular), close(event), close(set);
}
static void test_poll(void) {
    int p[2];
    if (pipe(p)) abort();
    struct pollfd f[3] = {{p[0], POLLIN, 0}, {p[1], POLLOUT, 0}, {-1, POLLIN, 9}};
    say("poll", poll(f, 3, 0)), say("revents", f[0].revents * 100 + f[1].revents * 10 + f[2].revents);
    double t = now();
    say("timeout", poll(f, 1, 40)), say("took", now() - t >= 0.039 && now() - t < 2);
    f[2].fd = 777, say("bad fd", poll(f, 3, 0)), say("nval", f[2].revents);
    fd_set r, w;
    FD_ZERO(&r); FD_ZERO(&w); FD_SET(p[0], &r), FD_SET(p[1], &w);
    struct timeval tv = {0, 30000};
    say("select", select(p[1] + 1, &r, &w, NULL, &tv)), say("sets", FD_ISSET(p[0], &r) * 10 + FD_ISSET(p[1], &w));
    FD_ZERO(&r); FD_SET(p[0], &r), t = now(), tv.tv_usec = 30000;
    say("select", select(p[1] + 1, &r, NULL, NULL, &tv)), say("took", now() - t >= 0.029 && now() - t < 2), say("left", tv.tv_usec);
    FD_ZERO(&r); FD_SET(60, &r), say("bad", select(61, &r, NULL, NULL, &tv));
    struct timespec ts = {0, 20000000};
    say("ppoll", ppoll(f, 1, &ts, NULL));
    close(p[1]), say("hup", poll(f, 1, -1)), say("hup", f[0].revents);
}
static void test_clocks(void) {
    int ids[] = {CLOCK_REALTIME, CLOCK_MONOTONIC, CLOCK_BOOTTIME, CLOCK_MONOTONIC_RAW, CLOCK_REALTIME_COARSE, CLOCK_MONOTONIC_COARSE};
    for (int i = 0; i < 6; i++) {
        struct timespec a, b, c, res;
        int backwards = 0;
        for (int k = 0; k < 2000; k++) {
            clock_gettime(ids[i], &a), clock_gettime(ids[i], &b);
            backwards += a.tv_sec > b.tv_sec || (a.tv_sec == b.tv_sec && a.tv_nsec > b.tv_nsec);
        }
        syscall(SYS_clock_gettime, ids[i], &b), clock_gettime(ids[i], &c);
        double ab = b.tv_sec - a.tv_sec + (b.tv_nsec - a.tv_nsec) / 1e9, bc = c.tv_sec - b.tv_sec + (c.tv_nsec - b.tv_nsec) / 1e9;
        clock_getres(ids[i], &res);
        printf("clock %d backwards %d agrees %d %d res %d\n", ids[i], backwards, ab > -0.02 && ab < 0.5, bc > -0.02 && bc < 0.5, res.tv_sec == 0 && res.tv_nsec > 0);
    }
    struct timespec cpu;
    say("cpu", clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &cpu)), say("thread", clock_gettime(CLOCK_THREAD_CPUTIME_ID, &cpu)), say("bad", clock_gettime(99, &cpu));
    say("time", time(NULL) > 1600000000);
}
static int by_name(const void *a, const void *b) { return strcmp(*(char **)a, *(char **)b); }
static void test_files(void) {
    char data[64] = {0};
    struct stat st;
    say("mkdir", mkdir("d", 0750)), say("again", mkdir("d", 0750)), say("create", open("d/f", O_CREAT | O_EXCL | O_RDWR, 0640));
    int fd = open("d/f", O_RDWR), ap = open("d/f", O_WRONLY | O_APPEND);
    say("excl", open("d/f", O_CREAT | O_EXCL | O_RDWR, 0640)), say("write", write(fd, "hello world", 11)), say("append", write(ap, "!", 1));
    say("seek", lseek(fd, 6, SEEK_SET)), say("read", read(fd, data, 20)), puts(data);
    say("pwrite", pwrite(fd, "W", 1, 6)), say("hole", pwrite(fd, "z", 1, 5000)), fstat(fd, &st);
    say("size", st.st_size), say("mode", st.st_mode), say("links", st.st_nlink), say("truncate", ftruncate(fd, 8)), say("end", lseek(fd, 0, SEEK_END));
    say("rename", rename("d/f", "d/g")), say("gone", access("d/f", F_OK)), say("symlink", symlink("g", "d/s")), say("readlink", readlink("d/s", data, 60));
    say("stat", stat("d/s", &st)), say("size", st.st_size), lstat("d/s", &st), say("lstat", S_ISLNK(st.st_mode)), say("link", link("d/g", "d/h"));
    stat("d/g", &st), say("links", st.st_nlink), say("chmod", chmod("d/g", 0600)), stat("d/h", &st), say("mode", st.st_mode & 07777);
    say("not empty", rmdir("d")), say("a file", rmdir("d/g")), say("a directory", unlink("d")), say("not a directory", open("d/g/x", O_RDONLY));
    DIR *dir = opendir("d");
    char *names[10];
    int n = 0;
    for (struct dirent *e; (e = readdir(dir));) names[n++] = strdup(e->d_name);
    closedir(dir), qsort(names, n, sizeof *names, by_name);
    for (int i = 0; i < n; i++) printf("%s ", names[i]);
    puts("");
    say("unlink", unlink("d/s")), unlink("d/g"), unlink("d/h"), say("rmdir", rmdir("d"));
    say("after unlink", pread(fd, data, 5, 0)), fstat(fd, &st), say("links", st.st_nlink);
    say("directory", read(open("/", O_RDONLY), data, 1)), say("write", open("/", O_WRONLY)), say("loop", symlink("l", "l")), say("loop", open("l", O_RDONLY)), unlink("l");
    say("dup", fcntl(fd, F_DUPFD_CLOEXEC, 90)), say("flags", fcntl(90, F_GETFD)), say("getfl", fcntl(ap, F_GETFL) & (O_APPEND | O_ACCMODE));
    char *map = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    say("map", map == MAP_FAILED), memcpy(map, "MAPPED", 6), say("pread", pread(fd, data, 6, 0)), printf("%.6s\n", data);
    say("null", write(open("/dev/null", O_WRONLY), data, 5)), say("zero", read(open("/dev/zero", O_RDONLY), data, 5)), say("full", write(open("/dev/full", O_WRONLY), data, 5));
    char long_name[5000];
    memset(long_name, 'a', 4999), long_name[4999] = 0;
    say("long", open(long_name, O_RDONLY)), long_name[300] = 0, say("long", open(long_name, O_CREAT | O_WRONLY, 0600)), say("empty", open("", O_RDONLY));
}
int main(int argc, char **argv) {
    setvbuf(stdout, NULL, _IOLBF, 0);
    signal(SIGPIPE, SIG_IGN);
    const char *which = argc > 1 ? argv[1] : "";
    if (!strcmp(which, "pipes")) test_pipes();
    if (!strcmp(which, "events")) test_events();
    if (!strcmp(which, "epoll")) test_epoll();
    if (!strcmp(which, "poll")) test_poll();
    if (!strcmp(which, "clocks")) test_clocks();
    if (!strcmp(which, "files")) test_files();
    if (!strcmp(which, "list")) puts("pipes\nevents\nepoll\npoll\nclocks\nfiles");
    return 0;
}

// Locks: fcntl records of processes and descriptions, flock; ranges, conflicts, waiting, deadlocks, and when they end.
#include "check.h"
#include <fcntl.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/wait.h>

static const char *kinds[] = {"read", "write", "unlock"};

static int lock(int fd, int cmd, int kind, long start, long len, int whence) {
    struct flock l = {.l_type = kind, .l_whence = whence, .l_start = start, .l_len = len};
    return fcntl(fd, cmd, &l);
}

static void who(const char *name, int fd, int cmd, int kind, long start, long len) {
    struct flock l = {.l_type = kind, .l_whence = SEEK_SET, .l_start = start, .l_len = len};
    int r = fcntl(fd, cmd, &l);
    if (r < 0)
        show(name, "-1 %s", strerrorname_np(errno));
    else if (l.l_type == F_UNLCK)
        show(name, "free");
    else
        show(name, "%s %ld+%ld by %s", kinds[l.l_type], (long)l.l_start, (long)l.l_len, l.l_pid == -1 ? "a description" : l.l_pid == getppid() ? "the parent" : "another");
}

// Runs what a second process sees.
#define CHILD(...) do { fflush(stdout); pid_t c = fork(); if (!c) { __VA_ARGS__; _exit(0); } int st; waitpid(c, &st, 0); } while (0)

static int fd, ro, wo;

static void ranges(void) {
    static const struct { long start, len; int whence; } r[] = {{0, 0, SEEK_SET}, {10, 10, SEEK_SET}, {0, 10, SEEK_CUR}, {-5, 5, SEEK_CUR}, {-10, 5, SEEK_END},
        {0, 10, SEEK_END}, {20, -10, SEEK_SET}, {5, -10, SEEK_SET}, {-1, 1, SEEK_SET}, {0x7fffffffffffffff, 1, SEEK_SET}, {0x7fffffffffffffff, 2, SEEK_SET},
        {1, 0x7fffffffffffffff, SEEK_SET}, {0x7fffffffffffffff, 10, SEEK_END}, {0, 5, 9}, {0, -1, SEEK_SET}, {1, -1, SEEK_SET}};
    lseek(fd, 50, SEEK_SET);
    for (unsigned i = 0; i < sizeof r / sizeof *r; i++) {
        RESULT(CASE("range %u", i), lock(fd, F_SETLK, F_WRLCK, r[i].start, r[i].len, r[i].whence));
        CHILD(who(CASE("range %u is seen", i), fd, F_GETLK, F_WRLCK, 0, 0));
        RESULT(CASE("range %u unlocked", i), lock(fd, F_SETLK, F_UNLCK, 0, 0, SEEK_SET));
    }
}

static void splits(void) {
    lock(fd, F_SETLK, F_WRLCK, 0, 100, SEEK_SET);
    lock(fd, F_SETLK, F_UNLCK, 40, 20, SEEK_SET);
    CHILD(for (int at = 0; at < 120; at += 10) who(CASE("after a hole, at %d", at), fd, F_GETLK, F_WRLCK, at, 10));
    lock(fd, F_SETLK, F_RDLCK, 30, 40, SEEK_SET);
    CHILD(for (int at = 0; at < 120; at += 10) who(CASE("after a read lock over it, at %d", at), fd, F_GETLK, F_WRLCK, at, 10));
    CHILD(for (int at = 0; at < 120; at += 10) who(CASE("for a reader, at %d", at), fd, F_GETLK, F_RDLCK, at, 10));
    lock(fd, F_SETLK, F_WRLCK, 0, 100, SEEK_SET);
    CHILD(who("joined again", fd, F_GETLK, F_WRLCK, 0, 0));
    for (int i = 0; i < 100; i += 2)
        lock(fd, F_SETLK, F_UNLCK, i, 1, SEEK_SET);
    CHILD(who("every other byte, even", fd, F_GETLK, F_WRLCK, 50, 1); who("odd", fd, F_GETLK, F_WRLCK, 51, 1); who("any", fd, F_GETLK, F_WRLCK, 52, 0));
    lock(fd, F_SETLK, F_UNLCK, 0, 0, SEEK_SET);
}

static void conflicts(void) {
    for (int mine = 0; mine < 3; mine++)
        for (int theirs = 0; theirs < 2; theirs++)
            for (int apart = 0; apart < 3; apart++) {
                lock(fd, F_SETLK, mine, 100, 10, SEEK_SET);
                CHILD(RESULT(CASE("%s against %s, %d apart", kinds[theirs], kinds[mine], apart * 5), lock(fd, F_SETLK, theirs, 100 + apart * 5, 10, SEEK_SET)));
                lock(fd, F_SETLK, F_UNLCK, 0, 0, SEEK_SET);
            }
    RESULT("a write lock on what is read only", lock(ro, F_SETLK, F_WRLCK, 0, 1, SEEK_SET));
    RESULT("a read lock on what is write only", lock(wo, F_SETLK, F_RDLCK, 0, 1, SEEK_SET));
    RESULT("unlock of what is not locked", lock(ro, F_SETLK, F_UNLCK, 0, 1, SEEK_SET));
    RESULT("an unknown kind", lock(fd, F_SETLK, 7, 0, 1, SEEK_SET));
    RESULT("F_GETLK of F_UNLCK", lock(fd, F_GETLK, F_UNLCK, 0, 1, SEEK_SET));
    RESULT("no descriptor", lock(99, F_SETLK, F_RDLCK, 0, 1, SEEK_SET));
    RESULT("no structure", fcntl(fd, F_SETLK, 8));
    int p[2];
    pipe(p);
    RESULT("a pipe", lock(p[0], F_SETLK, F_RDLCK, 0, 1, SEEK_SET));
    int dir = open(".", O_RDONLY);
    RESULT("a directory", lock(dir, F_SETLK, F_RDLCK, 0, 1, SEEK_SET));
    RESULT("an own lock is no conflict", (lock(fd, F_SETLK, F_WRLCK, 0, 1, SEEK_SET), lock(ro, F_SETLK, F_RDLCK, 0, 1, SEEK_SET)));
    CHILD(who("it became a read lock", fd, F_GETLK, F_WRLCK, 0, 1));
    lock(fd, F_SETLK, F_WRLCK, 0, 10, SEEK_SET);
    close(dup(ro));
    CHILD(who("closing any descriptor ends them", fd, F_GETLK, F_WRLCK, 0, 0));
    lock(fd, F_SETLK, F_WRLCK, 0, 10, SEEK_SET);
    CHILD(close(fd));
    CHILD(who("a child's close does not", fd, F_GETLK, F_WRLCK, 0, 0));
    CHILD(who("a child does not inherit", fd, F_GETLK, F_WRLCK, 5, 1));
    lock(fd, F_SETLK, F_UNLCK, 0, 0, SEEK_SET);
    CHILD(lock(fd, F_SETLK, F_WRLCK, 0, 0, SEEK_SET));
    who("the end of a process ends them", fd, F_GETLK, F_WRLCK, 0, 0);
}

static void on_alarm(int s) { (void)s; }

static void waiting(void) {
    int go[2], back[2];
    char b;
    struct sigaction sa = {.sa_handler = on_alarm};
    sigaction(SIGALRM, &sa, 0);
    pipe(go), pipe(back);
    lock(fd, F_SETLK, F_WRLCK, 0, 10, SEEK_SET);
    fflush(stdout);
    pid_t c = fork();
    if (!c) {
        write(back[1], "r", 1);
        RESULT("waits for a lock", lock(fd, F_SETLKW, F_WRLCK, 5, 10, SEEK_SET));
        _exit(0);
    }
    read(back[0], &b, 1);
    usleep(20000);
    lock(fd, F_SETLK, F_UNLCK, 0, 10, SEEK_SET);
    waitpid(c, 0, 0);
    lock(fd, F_SETLK, F_WRLCK, 0, 10, SEEK_SET);
    CHILD(ualarm(20000, 0); RESULT("a signal ends the wait", lock(fd, F_SETLKW, F_RDLCK, 0, 1, SEEK_SET)));
    // Each has one byte and wants the other's.
    c = fork();
    if (!c) {
        lock(fd, F_SETLK, F_WRLCK, 20, 1, SEEK_SET);
        write(back[1], "r", 1);
        int r = lock(fd, F_SETLKW, F_WRLCK, 0, 1, SEEK_SET);
        _exit(r == 0);
    }
    read(back[0], &b, 1);
    usleep(30000);
    RESULT("a deadlock of two", lock(fd, F_SETLKW, F_WRLCK, 20, 1, SEEK_SET));
    RESULT("is none without waiting", lock(fd, F_SETLK, F_WRLCK, 20, 1, SEEK_SET));
    lock(fd, F_SETLK, F_UNLCK, 0, 0, SEEK_SET);
    int st;
    waitpid(c, &st, 0);
    show("the other got it", "%d", WEXITSTATUS(st));
    lock(fd, F_SETLK, F_WRLCK, 1, 1, SEEK_SET);
    pid_t ring[2];
    for (int i = 0; i < 2; i++) {
        ring[i] = fork();
        if (!ring[i]) {
            lock(fd, F_SETLK, F_WRLCK, 2 + i, 1, SEEK_SET);
            write(back[1], "r", 1);
            usleep(30000);
            _exit(lock(fd, F_SETLKW, F_WRLCK, 1 + i, 1, SEEK_SET) == 0);
        }
        read(back[0], &b, 1);
    }
    usleep(80000);
    RESULT("a deadlock of three", lock(fd, F_SETLKW, F_WRLCK, 3, 1, SEEK_SET));
    lock(fd, F_SETLK, F_UNLCK, 0, 0, SEEK_SET);
    for (int i = 0; i < 2; i++) {
        waitpid(ring[i], &st, 0);
        show("one of the ring", "%d", WEXITSTATUS(st));
    }
}

static void descriptions(void) {
    int a = open("f", O_RDWR), b = open("f", O_RDWR), c = dup(a);
    RESULT("OFD write", lock(a, F_OFD_SETLK, F_WRLCK, 0, 10, SEEK_SET));
    RESULT("another description", lock(b, F_OFD_SETLK, F_WRLCK, 0, 10, SEEK_SET));
    RESULT("a reader", lock(b, F_OFD_SETLK, F_RDLCK, 9, 10, SEEK_SET));
    RESULT("beside it", lock(b, F_OFD_SETLK, F_WRLCK, 10, 10, SEEK_SET));
    RESULT("a duplicate", lock(c, F_OFD_SETLK, F_RDLCK, 0, 10, SEEK_SET));
    who("OFD_GETLK", b, F_OFD_GETLK, F_WRLCK, 0, 10);
    who("GETLK of the same process", b, F_GETLK, F_WRLCK, 0, 10);
    RESULT("a record of the process against it", lock(b, F_SETLK, F_WRLCK, 0, 5, SEEK_SET));
    struct flock l = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_pid = 1};
    RESULT("a pid that is not 0", fcntl(a, F_OFD_SETLK, &l));
    close(c);
    RESULT("a closed duplicate leaves it", lock(b, F_OFD_SETLK, F_WRLCK, 0, 10, SEEK_SET));
    CHILD(RESULT("a child has it too", lock(a, F_OFD_SETLK, F_WRLCK, 0, 10, SEEK_SET)); close(a));
    who("and keeps it", b, F_OFD_GETLK, F_WRLCK, 0, 10);
    close(a);
    RESULT("the last close ends it", lock(b, F_OFD_SETLK, F_WRLCK, 0, 10, SEEK_SET));
    close(b);
}

static void flocks(void) {
    static const struct { const char *name; int op; } ops[] = {{"shared", LOCK_SH}, {"exclusive", LOCK_EX}};
    int a = open("f", O_RDONLY), b = open("f", O_RDONLY), c = dup(a);
    for (int i = 0; i < 2; i++)
        for (int j = 0; j < 2; j++) {
            RESULT(CASE("flock %s", ops[i].name), flock(a, ops[i].op | LOCK_NB));
            RESULT(CASE("flock %s against %s", ops[j].name, ops[i].name), flock(b, ops[j].op | LOCK_NB));
            RESULT(CASE("flock of a duplicate %s", ops[j].name), flock(c, ops[j].op | LOCK_NB));
            RESULT(CASE("unlock by the duplicate %d%d", i, j), flock(c, LOCK_UN));
            RESULT(CASE("unlock of the other %d%d", i, j), flock(b, LOCK_UN));
        }
    RESULT("flock unknown", flock(a, 0));
    RESULT("flock both", flock(a, LOCK_SH | LOCK_EX));
    RESULT("flock no descriptor", flock(99, LOCK_SH));
    flock(a, LOCK_EX);
    RESULT("records do not see it", lock(fd, F_SETLK, F_WRLCK, 0, 0, SEEK_SET));
    lock(fd, F_SETLK, F_UNLCK, 0, 0, SEEK_SET);
    CHILD(RESULT("a child unlocks it", flock(a, LOCK_UN)));
    RESULT("so that others may", flock(b, LOCK_EX | LOCK_NB));
    flock(b, LOCK_UN);
    flock(a, LOCK_EX);
    close(a);
    RESULT("a close with a duplicate left", flock(b, LOCK_EX | LOCK_NB));
    close(c);
    RESULT("the last close", flock(b, LOCK_EX | LOCK_NB));
    a = open("f", O_RDWR);
    CHILD(ualarm(20000, 0); RESULT("a signal ends the wait of flock", flock(a, LOCK_EX)));
    fflush(stdout);
    pid_t k = fork();
    if (!k) {
        close(b);
        RESULT("flock waits", flock(a, LOCK_EX));
        _exit(0);
    }
    usleep(30000);
    flock(b, LOCK_UN);
    waitpid(k, 0, 0);
    RESULT("the child's description is the parent's", flock(b, LOCK_SH | LOCK_NB));
    int p[2];
    pipe(p);
    RESULT("flock of a pipe", flock(p[0], LOCK_EX | LOCK_NB));
    RESULT("flock of a directory", flock(open(".", O_RDONLY), LOCK_EX | LOCK_NB));
    RESULT("flock of a device", flock(open("/dev/null", O_RDONLY), LOCK_EX | LOCK_NB));
    RESULT("F_GETLEASE", fcntl(a, F_GETLEASE));
}

int main(void) {
    scratch();
    fd = open("f", O_CREAT | O_RDWR, 0644);
    ftruncate(fd, 1000);
    ro = open("f", O_RDONLY), wo = open("f", O_WRONLY);
    ranges();
    splits();
    conflicts();
    waiting();
    descriptions();
    flocks();
    return 0;
}

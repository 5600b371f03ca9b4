// process_vm_readv, process_vm_writev: vectors of different shape, faults at each end, errors, permissions. And the resource limits of a first process.
#include "check.h"
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>

static char *area;      // Three pages of the child's and ours at the same address; the third cannot be touched.
enum { PAGE = 4096 };

// Moves `total` bytes with local pieces of `a` bytes and remote ones of `b`; the result, and whether the bytes are right.
static void shapes(pid_t child, int write) {
    static const size_t sizes[] = {1, 3, 64, 1000, 4096};
    char *mine = malloc(2 * PAGE);
    for (int i = 0; i < 5; i++)
        for (int j = 0; j < 5; j++) {
            struct iovec local[1024], remote[1024];
            size_t total = 1000, n = 0, m = 0;
            for (size_t at = 0; at < total; n++) {
                size_t len = total - at < sizes[i] ? total - at : sizes[i];
                local[n] = (struct iovec){mine + at, len};
                at += len;
            }
            for (size_t at = 0; at < total; m++) {
                size_t len = total - at < sizes[j] ? total - at : sizes[j];
                remote[m] = (struct iovec){area + 3500 + at, len};
                at += len;
            }
            memset(mine, i * 5 + j + 1, total);
            const char *name = write ? "write" : "read";
            if (write) {
                RESULT(CASE("%s pieces of %zu and %zu", name, sizes[i], sizes[j]), process_vm_writev(child, local, n, remote, m, 0));
                char back[1000];
                struct iovec whole = {back, total}, there = {area + 3500, total};
                RESULT(CASE("%s %zu %zu: read back", name, sizes[i], sizes[j]), process_vm_readv(child, &whole, 1, &there, 1, 0));
                CHECK(CASE("%s %zu %zu: bytes", name, sizes[i], sizes[j]), memcmp(back, mine, total) == 0);
            } else {
                RESULT(CASE("%s pieces of %zu and %zu", name, sizes[i], sizes[j]), process_vm_readv(child, local, n, remote, m, 0));
                int right = 1;
                for (size_t k = 0; k < total; k++)
                    right &= mine[k] == (char)((3500 + k) % 251);
                CHECK(CASE("%s %zu %zu: bytes", name, sizes[i], sizes[j]), right);
            }
        }
    free(mine);
}

static void errors(pid_t child) {
    char buffer[3 * PAGE];
    struct iovec mine = {buffer, sizeof buffer}, there = {area, sizeof buffer}, none = {buffer, 0}, wild = {(void *)1, 8};
    struct iovec beyond = {(void *)-4096L, 8}, negative = {buffer, (size_t)-1};
    for (int write = 0; write < 2; write++) {
        const char *name = write ? "writev" : "readv";
        ssize_t (*call)(pid_t, const struct iovec *, unsigned long, const struct iovec *, unsigned long, unsigned long) =
            write ? process_vm_writev : process_vm_readv;
        RESULT(CASE("%s with flags", name), call(child, &mine, 1, &there, 1, 1));
        RESULT(CASE("%s of no pieces here", name), call(child, &mine, 0, &there, 1, 0));
        RESULT(CASE("%s of no pieces there", name), call(child, &mine, 1, &there, 0, 0));
        RESULT(CASE("%s of an empty piece here", name), call(child, &none, 1, &there, 1, 0));
        RESULT(CASE("%s of an empty piece there", name), call(child, &mine, 1, &none, 1, 0));
        RESULT(CASE("%s of 1025 pieces here", name), call(child, &mine, 1025, &there, 1, 0));
        RESULT(CASE("%s of 1025 pieces there", name), call(child, &mine, 1, &there, 1025, 0));
        RESULT(CASE("%s with a negative length here", name), call(child, &negative, 1, &there, 1, 0));
        RESULT(CASE("%s with an array that is not there", name), call(child, (void *)8, 1, &there, 1, 0));
        RESULT(CASE("%s with a remote array that is not there", name), call(child, &mine, 1, (void *)8, 1, 0));
        RESULT(CASE("%s beyond user space", name), call(child, &beyond, 1, &there, 1, 0));
        RESULT(CASE("%s with nothing mapped here", name), call(child, &wild, 1, &there, 1, 0));
        RESULT(CASE("%s with nothing mapped there", name), call(child, &mine, 1, &wild, 1, 0));
        RESULT(CASE("%s of nobody", name), call(0x3ffffff, &mine, 1, &there, 1, 0));
        RESULT(CASE("%s of a negative process", name), call(-1, &mine, 1, &there, 1, 0));
        RESULT(CASE("%s of process 0", name), call(0, &mine, 1, &there, 1, 0));
        RESULT(CASE("%s of nobody and nothing", name), call(0x3ffffff, &mine, 0, &there, 1, 0));
        // Up to the page that cannot be touched, whole pieces and parts of one.
        RESULT(CASE("%s into the hole", name), call(child, &mine, 1, &there, 1, 0));
        struct iovec parts[2] = {{area + PAGE, PAGE}, {area + 2 * PAGE, PAGE}};
        RESULT(CASE("%s two pieces, the second a hole", name), call(child, &mine, 1, parts, 2, 0));
        struct iovec swapped[2] = {{area + 2 * PAGE, PAGE}, {area + PAGE, PAGE}};
        RESULT(CASE("%s two pieces, the first a hole", name), call(child, &mine, 1, swapped, 2, 0));
        struct iovec self = {area, PAGE};
        RESULT(CASE("%s of ourselves", name), call(getpid(), &mine, 1, &self, 1, 0));
    }
}

// What another user's proc and calls tell about a process of root's.
static void private(pid_t pid) {
    static const char *const names[] = {"mem",  "maps", "smaps", "environ", "auxv",   "io",   "fd",
                                        "stat", "comm", "limits", "status",  "cmdline", "task"};
    static const char *const links[] = {"cwd", "exe", "root", "fd/0"};
    char path[64], to[200];
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        sprintf(path, "/proc/%d/%s", pid, names[i]);
        int fd = WORKS(CASE("open of %s", names[i]), open(path, O_RDONLY));
        if (fd >= 0)
            close(fd);
        sprintf(path, "/proc/%d/%s", getpid(), names[i]);
        fd = WORKS(CASE("open of our own %s", names[i]), open(path, O_RDONLY));
        if (fd >= 0)
            close(fd);
    }
    for (size_t i = 0; i < sizeof links / sizeof *links; i++) {
        sprintf(path, "/proc/%d/%s", pid, links[i]);
        RESULT(CASE("readlink of %s", links[i]), readlink(path, to, sizeof to) > 0 ? 0 : -1);
        RESULT(CASE("stat through %s", links[i]), access(path, F_OK));
        strcat(path, "/etc");
        RESULT(CASE("a name beyond %s", links[i]), access(path, F_OK));
    }
    void *list;
    size_t size;
    RESULT("robust list of another user's task", syscall(SYS_get_robust_list, pid, &list, &size));
    RESULT("robust list of our own", syscall(SYS_get_robust_list, 0, &list, &size));
    int pidfd = syscall(SYS_pidfd_open, pid, 0);
    RESULT("descriptor of another user's process", syscall(SYS_pidfd_getfd, pidfd, 1, 0));
    RESULT("signal to another user's process", syscall(SYS_pidfd_send_signal, pidfd, 0, NULL, 0));
    close(pidfd);
}

static void limits(void) {
    static const struct { int which; const char *name; } known[] = {
        {RLIMIT_MEMLOCK, "MEMLOCK"}, {RLIMIT_MSGQUEUE, "MSGQUEUE"}, {RLIMIT_NICE, "NICE"}, {RLIMIT_RTPRIO, "RTPRIO"},
        {RLIMIT_STACK, "STACK"},     {RLIMIT_CORE, "CORE"},
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        struct rlimit limit;
        RESULT(CASE("RLIMIT_%s", known[i].name), getrlimit(known[i].which, &limit));
        struct rlimit lower = {limit.rlim_cur / 2, limit.rlim_max};
        RESULT(CASE("RLIMIT_%s halved", known[i].name), setrlimit(known[i].which, &lower));
        RESULT(CASE("RLIMIT_%s restored", known[i].name), setrlimit(known[i].which, &limit));
    }
}

int main(void) {
    area = mmap(NULL, 3 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    for (int i = 0; i < 3 * PAGE; i++)
        area[i] = (char)(i % 251);
    mprotect(area + 2 * PAGE, PAGE, PROT_NONE);
    int ready[2];
    if (pipe(ready) != 0)
        return 1;
    pid_t child = fork();
    if (child == 0) {
        close(ready[0]);
        for (;;)
            pause();
    }
    close(ready[1]);
    shapes(child, 0);
    shapes(child, 1);
    // Copy-on-write: what was written there is not here.
    CHECK("ours is unchanged", area[3500] == (char)(3500 % 251) && area[4499] == (char)(4499 % 251));
    errors(child);
    // Another user may not look into a process of root's.
    pid_t other = fork();
    if (other == 0) {
        char byte;
        struct iovec mine = {&byte, 1}, there = {area, 1};
        if (setgid(1000) != 0 || setuid(1000) != 0)
            _exit(2);
        RESULT("another user", process_vm_readv(child, &mine, 1, &there, 1, 0));
        RESULT("another user, itself", process_vm_readv(getpid(), &mine, 1, &there, 1, 0));
        // As after an execve: who gave root up cannot be looked into, not even by itself.
        prctl(PR_SET_DUMPABLE, 1);
        private(child);
        _exit(0);
    }
    waitpid(other, NULL, 0);
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    char byte;
    struct iovec mine = {&byte, 1}, there = {area, 1};
    RESULT("a process that has ended", process_vm_readv(child, &mine, 1, &there, 1, 0));
    limits();
    return 0;
}

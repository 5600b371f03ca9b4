// Memory: mmap, munmap, mprotect, mremap, madvise, brk, mincore, and what a program sees of them.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/sysinfo.h>
#include <sys/utsname.h>
#include <unistd.h>

enum { P = 4096 };
static sigjmp_buf back;
static volatile int code;
static void caught(int s, siginfo_t *i, void *c) { code = s * 100 + i->si_code; siglongjmp(back, 1); }
static int touch(volatile char *p, int write) {
    code = 0;
    if (!sigsetjmp(back, 1)) { if (write) *p = 1; else (void)*p; }
    return code;
}
static void say(const char *what, long v) { printf("%s %ld\n", what, v); }
static void failed(const char *what, void *p) { printf("%s %s\n", what, p == MAP_FAILED ? strerrorname_np(errno) : "ok"); }
static char *anon(size_t pages, int prot) { return mmap(NULL, pages * P, prot, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0); }

int main(void) {
    struct sigaction a = {.sa_sigaction = caught, .sa_flags = SA_SIGINFO};
    sigaction(SIGSEGV, &a, NULL), sigaction(SIGBUS, &a, NULL);
    char *p = anon(8, PROT_READ | PROT_WRITE);
    say("fresh", p[0] + p[8 * P - 1]), memset(p, 5, 8 * P);
    say("munmap", munmap(p + 2 * P, P)), say("hole", touch(p + 2 * P, 0)), say("beside", p[P] + p[3 * P]), say("twice", munmap(p + 2 * P, P));
    say("mprotect hole", mprotect(p, 8 * P, PROT_READ)), say("errno", errno), say("before hole", touch(p, 1)), say("after hole", touch(p + 4 * P, 1));
    char *q = anon(4, PROT_READ | PROT_WRITE);
    say("read only", mprotect(q, P, PROT_READ)), say("write", touch(q, 1)), say("next", touch(q + P, 1)), mprotect(q, P, PROT_NONE), say("none", touch(q, 0));
    mprotect(q, P, PROT_READ | PROT_WRITE), memset(q, 7, 4 * P);
    say("dontneed", madvise(q + P, 2 * P, MADV_DONTNEED)), say("zero", q[P] + q[3 * P - 1]), say("kept", q[0] + q[3 * P]);
    failed("fixed over", mmap(q + P, P, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0)), say("over", touch(q + P, 1)), say("q", q[2 * P]);
    failed("noreplace", mmap(q, P, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0));
    char *m = anon(4, PROT_READ | PROT_WRITE);
    for (int i = 0; i < 4; i++) m[i * P] = i + 1;
    mmap(m + 4 * P, P, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    failed("in the way", mremap(m, 4 * P, 8 * P, 0));
    char *n = mremap(m, 4 * P, 8 * P, MREMAP_MAYMOVE);
    say("moved", n != MAP_FAILED && n[0] == 1 && n[3 * P] == 4 && n[7 * P] == 0), say("old", n == m ? 1101 : touch(m, 0));
    say("shrink", mremap(n, 8 * P, 2 * P, 0) == n), say("cut", touch(n + 2 * P, 0)), say("stays", n[P]);
    char *to = anon(2, PROT_NONE);
    say("fixed", mremap(n, 2 * P, 2 * P, MREMAP_MAYMOVE | MREMAP_FIXED, to) == to), say("there", to[P]), say("gone", touch(n, 0));
    failed("odd", mremap(to + 1, P, P, 0)), failed("unmapped", mremap(n, P, 2 * P, MREMAP_MAYMOVE)), failed("overlap", mremap(to, 2 * P, P, MREMAP_MAYMOVE | MREMAP_FIXED, to));
    failed("zero length", mmap(NULL, 0, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)), failed("no kind", mmap(NULL, P, PROT_READ, MAP_ANONYMOUS, -1, 0));
    failed("huge", mmap(NULL, 1UL << 47, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)), failed("bad fd", mmap(NULL, P, PROT_READ, MAP_PRIVATE, 99, 0));
    failed("odd offset", mmap(NULL, P, PROT_READ, MAP_PRIVATE, 0, 7)), failed("odd fixed", mmap((void *)0x10001, P, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0));
    say("munmap odd", munmap(to + 1, P)), say("munmap zero", munmap(to, 0)), say("mprotect odd", mprotect(to + 1, P, PROT_READ)), say("mprotect bad", mprotect(to, P, 64));
    char *big = mmap(NULL, 1UL << 36, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    failed("reserve 64 GiB", big), say("open", mprotect(big + (1UL << 35), 16 * P, PROT_READ | PROT_WRITE)), say("use", touch(big + (1UL << 35) + 5 * P, 1)), say("rest", touch(big + (1UL << 34), 0));
    say("give back", munmap(big, 1UL << 36));
    int fd = open("map", O_CREAT | O_RDWR | O_TRUNC, 0600);
    for (int i = 0; i < 3; i++) { char block[P]; memset(block, 'a' + i, P); if (write(fd, block, P) != P) return 1; }
    char *private = mmap(NULL, 3 * P, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0), *shared = mmap(NULL, 2 * P, PROT_READ | PROT_WRITE, MAP_SHARED, fd, P);
    private[0] = 'X', shared[0] = 'S';
    char c;
    say("private", pread(fd, &c, 1, 0) + c), say("shared", pread(fd, &c, 1, P) + c), say("seen", private[P]), say("msync", msync(shared, P, MS_SYNC));
    say("truncate", ftruncate(fd, P)), say("first", private[0]);
    char *one = sbrk(0);
    say("brk", brk(one + 10 * P)), one[9 * P] = 3, say("use", one[9 * P]), say("back", brk(one)), say("gone", touch(one + 9 * P, 0)), say("again", brk(one + 10 * P)), say("zeroed", one[9 * P]);
    unsigned char in[4];
    char *r = anon(4, PROT_READ | PROT_WRITE);
    r[0] = r[2 * P] = 1, say("mincore", mincore(r, 4 * P, in)), say("first", in[0] & 1), munmap(r + P, P), say("hole", mincore(r, 4 * P, in));
    struct rlimit l;
    say("limits", getrlimit(RLIMIT_STACK, &l)), say("stack", l.rlim_cur == 8 << 20), l.rlim_cur = 100, l.rlim_max = 50, say("wrong", setrlimit(RLIMIT_CORE, &l)), say("bad", getrlimit(77, &l));
    struct utsname u;
    struct sysinfo s;
    say("uname", uname(&u)), printf("%s %s\n", u.sysname, u.machine), say("sysinfo", sysinfo(&s)), say("some", s.totalram > 0 && s.freeram <= s.totalram && s.uptime >= 0);
    say("cpus", sysconf(_SC_NPROCESSORS_ONLN) >= 1), say("page", sysconf(_SC_PAGESIZE));
    return 0;
}

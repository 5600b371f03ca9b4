// mmap, munmap, mprotect, mremap, madvise, mincore, mlock, brk: results, and what each page allows, by touching it.
#include "check.h"
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>

#define PAGE 4096ul

static sigjmp_buf back;
static volatile int fault_signal, fault_code;
static void *volatile fault_address;

static void on_fault(int signal, siginfo_t *info, void *context) {
    (void)context;
    fault_signal = signal;
    fault_code = info->si_code;
    fault_address = info->si_addr;
    siglongjmp(back, 1);
}

static void catch_faults(void) {
    static char stack[65536];
    stack_t ss = {.ss_sp = stack, .ss_size = sizeof stack};
    sigaltstack(&ss, NULL);
    struct sigaction sa = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_ONSTACK};
    sigaction(SIGSEGV, &sa, NULL);
    sigaction(SIGBUS, &sa, NULL);
}

// What an access does: "ok", or the signal, its code and whether the address is right.
static const char *probe(volatile char *p, char kind) {
    static char text[4][64];
    static int next;
    char *out = text[next++ % 4];
    if (sigsetjmp(back, 1) == 0) {
        if (kind == 'r')
            (void)*p;
        else if (kind == 'w')
            *p = *p;
        else
            ((void (*)(void))(uintptr_t)p)();
        return "ok";
    }
    sprintf(out, "%s %d%s", fault_signal == SIGSEGV ? "SEGV" : "BUS", fault_code,
            fault_address == (void *)p ? "" : " elsewhere");
    return out;
}


static char *map(size_t pages, int prot, int flags) {
    char *p = mmap(NULL, pages * PAGE, prot, MAP_PRIVATE | MAP_ANONYMOUS | flags, -1, 0);
    return p == MAP_FAILED ? NULL : p;
}

static long maps_between(char *from, char *to, char *perms) {
    FILE *f = fopen("/proc/self/maps", "r");
    char line[512], p[8];
    unsigned long a, b;
    long n = 0;
    perms[0] = 0;
    while (f && fgets(line, sizeof line, f))
        if (sscanf(line, "%lx-%lx %7s", &a, &b, p) == 3 && a < (unsigned long)to && b > (unsigned long)from) {
            n++;
            sprintf(perms + strlen(perms), "%s%s", perms[0] ? " " : "", p);
        }
    if (f)
        fclose(f);
    return n;
}

static void show_maps(const char *name, char *from, size_t pages) {
    char perms[512];
    long n = maps_between(from, from + pages * PAGE, perms);
    show(name, "%ld mappings: %s", n, perms);
}

static void test_growth(void);

static void test_protection(void) {
    static const struct {
        const char *name;
        int prot;
    } all[] = {
        {"none", PROT_NONE},
        {"r", PROT_READ},
        {"w", PROT_WRITE},
        {"rw", PROT_READ | PROT_WRITE},
        {"x", PROT_EXEC},
        {"rx", PROT_READ | PROT_EXEC},
        {"wx", PROT_WRITE | PROT_EXEC},
        {"rwx", PROT_READ | PROT_WRITE | PROT_EXEC},
    };
    for (int i = 0; i < 8; i++) {
        char *p = map(1, PROT_READ | PROT_WRITE, 0);
        p[0] = (char)0xc3; // ret
        RESULT(CASE("mprotect %s", all[i].name), mprotect(p, PAGE, all[i].prot));
        // A page that can only be executed needs protection keys to refuse reads.
        if (all[i].prot != PROT_EXEC)
            show(CASE("read %s", all[i].name), "%s", probe(p, 'r'));
        show(CASE("write %s", all[i].name), "%s", probe(p, 'w'));
        show(CASE("execute %s", all[i].name), "%s", probe(p, 'x'));
        munmap(p, PAGE);
        show(CASE("read unmapped %s", all[i].name), "%s", probe(p, 'r'));
        p = mmap(NULL, PAGE, all[i].prot, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        CHECK(CASE("mmap %s", all[i].name), p != MAP_FAILED);
        if (all[i].prot != PROT_EXEC)
            show(CASE("fresh read %s", all[i].name), "%s", probe(p, 'r'));
        show(CASE("fresh write %s", all[i].name), "%s", probe(p, 'w'));
        munmap(p, PAGE);
    }
    show("read null", "%s", probe((char *)8, 'r'));
    show("write null", "%s", probe((char *)8, 'w'));
    show("call null", "%s", probe((char *)8, 'x'));
    show("read high", "%s", probe((char *)0x7ffffffff000ul, 'r'));
    show("read kernel", "%s", probe((char *)0xffffffff80000000ul, 'r'));

    // Splits and merges.
    char *p = map(9, PROT_READ | PROT_WRITE, 0);
    mprotect(p - PAGE, PAGE, PROT_READ); // whatever lies there
    memset(p, 1, 9 * PAGE);
    RESULT("middle read-only", mprotect(p + 3 * PAGE, 3 * PAGE, PROT_READ));
    for (int i = 2; i < 7; i++)
        show(CASE("split write %d", i), "%s", probe(p + i * PAGE, 'w'));
    RESULT("first of it none", mprotect(p + 3 * PAGE, PAGE, PROT_NONE));
    for (int i = 2; i < 5; i++)
        show(CASE("split read %d", i), "%s", probe(p + i * PAGE, 'r'));
    RESULT("all rw", mprotect(p, 9 * PAGE, PROT_READ | PROT_WRITE));
    int kept = 1;
    for (int i = 0; i < 9; i++)
        kept &= p[i * PAGE] == 1;
    CHECK("contents kept", kept);
    munmap(p + 4 * PAGE, PAGE);
    RESULT("mprotect over a hole", mprotect(p, 9 * PAGE, PROT_READ));
    show("before the hole", "%s", probe(p, 'w'));
    show("after the hole", "%s", probe(p + 5 * PAGE, 'w'));
    RESULT("mprotect misaligned", mprotect(p + 1, PAGE, PROT_READ));
    RESULT("mprotect nothing", mprotect(p, 0, PROT_READ));
    RESULT("mprotect one byte", mprotect(p, 1, PROT_READ | PROT_WRITE));
    show("the page of that byte", "%s", probe(p + PAGE - 1, 'w'));
    show("the page after it", "%s", probe(p + PAGE, 'w'));
    RESULT("mprotect unknown bits", mprotect(p, PAGE, 0x100));
    RESULT("mprotect wraps", mprotect(p, (size_t)-PAGE, PROT_READ));
    RESULT("mprotect growsdown of anonymous", mprotect(p, PAGE, PROT_READ | PROT_GROWSDOWN));
    RESULT("mprotect both grows", mprotect(p, PAGE, PROT_READ | PROT_GROWSDOWN | PROT_GROWSUP));
    munmap(p, 9 * PAGE);
}

static void test_mmap(int file) {
    RESULT("mmap length 0", (long)mmap(NULL, 0, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    RESULT("mmap no type", (long)mmap(NULL, PAGE, PROT_READ, MAP_ANONYMOUS, -1, 0));
    RESULT("mmap both types with an unknown flag",
           (long)mmap(NULL, PAGE, PROT_READ, MAP_SHARED_VALIDATE | (1 << 25), file, 0));
    RESULT("mmap bad descriptor", (long)mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, -1, 0));
    RESULT("mmap misaligned offset", (long)mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, file, 100));
    RESULT("mmap fixed misaligned", (long)mmap((void *)0x10000001, PAGE, PROT_READ,
                                               MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0));
    RESULT("mmap huge", (long)mmap(NULL, (size_t)1 << 60, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    RESULT("mmap wraps", (long)mmap(NULL, (size_t)-1, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    RESULT("mmap offset overflow",
           (long)mmap(NULL, PAGE * 2, PROT_READ, MAP_PRIVATE, file, (off_t)0x7ffffffffffff000));
    int pipes[2];
    if (pipe(pipes) == 0) {
        RESULT("mmap a pipe", (long)mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, pipes[0], 0));
        close(pipes[0]), close(pipes[1]);
    }
    int directory = open(".", O_RDONLY);
    RESULT("mmap a directory", (long)mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, directory, 0));
    close(directory);
    int readonly = open("file", O_RDONLY), writeonly = open("file", O_WRONLY);
    RESULT("shared write of a read-only descriptor",
           (long)mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, readonly, 0));
    WORKS("private write of a read-only descriptor",
          (long)mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, readonly, 0));
    RESULT("write-only descriptor", (long)mmap(NULL, PAGE, PROT_WRITE, MAP_SHARED, writeonly, 0));
    char *s = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, readonly, 0);
    RESULT("mprotect it writable", mprotect(s, PAGE, PROT_READ | PROT_WRITE));
    munmap(s, PAGE);
    close(readonly), close(writeonly);

    // Fixed, and not replacing.
    char *p = map(4, PROT_READ | PROT_WRITE, 0);
    memset(p, 7, 4 * PAGE);
    CHECK("fixed", mmap(p + PAGE, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == p + PAGE);
    show("replaced", "%d %d %d", p[0], p[PAGE], p[2 * PAGE]);
    show("replaced write", "%s", probe(p + PAGE, 'w'));
    RESULT("noreplace over", (long)mmap(p, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0));
    munmap(p + 3 * PAGE, PAGE);
    CHECK("noreplace free", mmap(p + 3 * PAGE, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1,
                                 0) == p + 3 * PAGE);
    RESULT("noreplace partly", (long)mmap(p + 2 * PAGE, 8 * PAGE, PROT_READ,
                                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0));
    munmap(p, 4 * PAGE);
    CHECK("a free hint is taken", mmap(p, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == p);
    char *q = mmap(p, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK("a taken hint is not", q != p && q != MAP_FAILED);
    munmap(p, PAGE), munmap(q, PAGE);
    q = mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
    CHECK("32 bits", (uintptr_t)q < 0x80000000u);
    munmap(q, PAGE);

    // A file: sharing, private copies, the end of the file.
    char *a = mmap(NULL, 3 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    char *b = mmap(NULL, 3 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, file, 0);
    char *c = mmap(NULL, 3 * PAGE, PROT_READ, MAP_SHARED, file, 0);
    show("file contents", "%.5s", a);
    memcpy(a, "HELLO", 5);
    show("seen private", "%.5s", b);
    show("seen shared", "%.5s", c);
    memcpy(b + 1, "xx", 2);
    show("private write", "%.5s", b);
    show("shared after it", "%.5s", c);
    memcpy(a, "later", 5);
    show("private copy stays", "%.5s", b);
    char buffer[8] = "";
    RESULT("pread sees the mapping", pread(file, buffer, 5, 0));
    show("what it read", "%s", buffer);
    RESULT("pwrite", pwrite(file, "PWRIT", 5, 10));
    show("mapping sees pwrite", "%.5s", c + 10);
    show("tail of the last page", "%d", a[PAGE + 200]);
    a[PAGE + 200] = 5;
    show("read beyond the end", "%s", probe(a + 2 * PAGE, 'r'));
    show("write beyond the end", "%s", probe(a + 2 * PAGE, 'w'));
    show("private beyond the end", "%s", probe(b + 2 * PAGE, 'r'));
    RESULT("grow", ftruncate(file, 3 * PAGE));
    show("after growing", "%s", probe(a + 2 * PAGE, 'w'));
    RESULT("shrink", ftruncate(file, 100));
    show("after shrinking", "%s", probe(a + PAGE, 'r'));
    show("first page", "%s", probe(a, 'w'));
    RESULT("grow again", ftruncate(file, 2 * PAGE));
    show("zero after all", "%d", a[PAGE + 200]);
    show("zero in the first page", "%d", a[200]);
    RESULT("msync sync", msync(a, 2 * PAGE, MS_SYNC));
    RESULT("msync async", msync(a, 2 * PAGE, MS_ASYNC));
    RESULT("msync both", msync(a, PAGE, MS_SYNC | MS_ASYNC));
    RESULT("msync misaligned", msync(a + 1, PAGE, MS_SYNC));
    RESULT("msync bad flags", msync(a, PAGE, 0x80));
    munmap(c, 3 * PAGE);
    RESULT("msync unmapped", msync(c, PAGE, MS_SYNC));
    pid_t pid = fork();
    if (pid == 0) {
        memcpy(a, "child", 5);
        memcpy(b, "CHILD", 5);
        _exit(0);
    }
    waitpid(pid, NULL, 0);
    show("shared with a child", "%.5s", a);
    show("private of a child", "%.5s", b);
    munmap(a, 3 * PAGE), munmap(b, 3 * PAGE);
    a = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    pid = fork();
    if (pid == 0) {
        a[0] = 1, a[PAGE] = 2;
        _exit(0);
    }
    waitpid(pid, NULL, 0);
    show("shared anonymous", "%d %d", a[0], a[PAGE]);
    show_maps("shared anonymous in maps", a, 2);
    munmap(a, 2 * PAGE);

    // munmap.
    p = map(6, PROT_READ | PROT_WRITE, 0);
    RESULT("munmap misaligned", munmap(p + 1, PAGE));
    RESULT("munmap nothing", munmap(p, 0));
    RESULT("munmap wraps", munmap(p, (size_t)-PAGE));
    RESULT("munmap high", munmap((void *)0xffff800000000000ul, PAGE));
    RESULT("munmap a hole", munmap(p + 2 * PAGE, 2 * PAGE));
    RESULT("munmap the hole again", munmap(p + 2 * PAGE, 2 * PAGE));
    for (int i = 0; i < 6; i++)
        show(CASE("page %d with a hole", i), "%s", probe(p + i * PAGE, 'r'));
    RESULT("munmap over the hole", munmap(p, 6 * PAGE));
    // Growing down.
    p = map(16, PROT_NONE, 0);
    munmap(p, 16 * PAGE);
    char *g = mmap(p + 15 * PAGE, PAGE, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_GROWSDOWN, -1, 0);
    CHECK("growsdown", g == p + 15 * PAGE);
    munmap(g, PAGE);
    test_growth();
}

// A mapping that grows down: to wherever it is touched, but for its limits and what lies below.
static void test_growth(void) {
    static const struct {
        const char *name;
        size_t wall;
        int prot, flags;
    } below[] = {{"nothing", 0, 0, 0},
                 {"a wall in the gap", 200, PROT_READ, 0},
                 {"a wall beyond the gap", 600, PROT_READ, 0},
                 {"no access in the gap", 200, PROT_NONE, 0},
                 {"another that grows", 200, PROT_READ | PROT_WRITE, MAP_GROWSDOWN}};
    for (unsigned i = 0; i < sizeof below / sizeof *below; i++) {
        const size_t room = 3000;
        char *area = map(room, PROT_NONE, 0);
        munmap(area, room * PAGE);
        char *top = area + (room - 2) * PAGE;
        char *g = mmap(top, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_GROWSDOWN, -1, 0);
        if (below[i].wall)
            mmap(top - below[i].wall * PAGE, PAGE, below[i].prot, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | below[i].flags, -1, 0);
        show(CASE("%s: the mapping", below[i].name), "%s", probe(g, 'w'));
        static const size_t steps[] = {1, 5, 100, 190, 300, 343, 344, 500, 590};
        for (unsigned k = 0; k < sizeof steps / sizeof *steps; k++) {
            show(CASE("%s: %zu pages down", below[i].name, steps[k]), "%s", probe(top - steps[k] * PAGE + 8, 'w'));
            unsigned char in = 0;
            show(CASE("%s: mapped %zu pages down", below[i].name, steps[k]), "%d", mincore(top - steps[k] * PAGE, PAGE, &in));
        }
        // The kernel's own accesses make it grow as well.
        int p[2];
        if (pipe(p) != 0)
            return;
        write(p[1], "kernel", 6);
        RESULT(CASE("%s: read into what grows", below[i].name), read(p[0], top - 620 * PAGE, 6));
        close(p[0]);
        close(p[1]);
        munmap(area, room * PAGE);
    }
    // RLIMIT_STACK bounds it.
    struct rlimit old, small;
    getrlimit(RLIMIT_STACK, &old);
    small = (struct rlimit){64 * PAGE, old.rlim_max};
    char *area = map(3000, PROT_NONE, 0);
    munmap(area, 3000 * PAGE);
    char *top = area + 2990 * PAGE;
    mmap(top, 10 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_GROWSDOWN, -1, 0);
    setrlimit(RLIMIT_STACK, &small);
    static const size_t steps[] = {20, 54, 55, 200};
    for (int i = 0; i < 4; i++)
        show(CASE("limit of 64 pages: %zu down", steps[i]), "%s", probe(top - steps[i] * PAGE, 'w'));
    setrlimit(RLIMIT_STACK, &old);
    show("without the limit", "%s", probe(top - 200 * PAGE, 'w'));
    // One that may only be read grows so, and shared ones do not exist.
    RESULT("shared", (long)mmap(NULL, PAGE, PROT_READ, MAP_SHARED | MAP_ANONYMOUS | MAP_GROWSDOWN, -1, 0));
    mprotect(top - 200 * PAGE, 210 * PAGE, PROT_READ);
    show("read only: read", "%s", probe(top - 210 * PAGE, 'r'));
    show("read only: write", "%s", probe(top - 220 * PAGE, 'w'));
    munmap(area, 3000 * PAGE);
    // A child has its own.
    area = map(3000, PROT_NONE, 0);
    munmap(area, 3000 * PAGE);
    top = area + 2990 * PAGE;
    mmap(top, 10 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_GROWSDOWN, -1, 0);
    top[-5000] = 3;
    pid_t pid = fork();
    if (pid == 0) {
        top[-9000] = 4;
        _exit(top[-5000] + top[-9000]);
    }
    int status;
    waitpid(pid, &status, 0);
    show("in a child", "%d", WEXITSTATUS(status));
    unsigned char in;
    RESULT("not in the parent", mincore(top - 3 * PAGE, PAGE, &in));
    // Nothing is put into its gap unasked.
    int close_by = 0;
    for (int i = 0; i < 50; i++) {
        char *q = mmap(top - PAGE * (1 + i * 5), PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        close_by += q < top && q >= top - 250 * PAGE;
        munmap(q, PAGE);
    }
    show("hints in the gap", "%d", close_by);
    munmap(area, 3000 * PAGE);
}

static void test_mremap(int file) {
    // The wall below stands in pages of our own: above a mapping may lie the C library's.
    char *p = mmap(map(8, PROT_NONE, 0), 4 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    for (int i = 0; i < 4; i++)
        p[i * PAGE] = i + 1;
    CHECK("mremap same", mremap(p, 4 * PAGE, 4 * PAGE, 0) == p);
    CHECK("mremap shrink", mremap(p, 4 * PAGE, 2 * PAGE, 0) == p);
    show("shrunk", "%s", probe(p + 2 * PAGE, 'r'));
    CHECK("mremap grow in place", mremap(p, 2 * PAGE, 4 * PAGE, 0) == p);
    show("grown", "%d %d", p[PAGE], p[2 * PAGE]);
    char *wall = mmap(p + 4 * PAGE, PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    RESULT("mremap against a wall", (long)mremap(p, 4 * PAGE, 8 * PAGE, 0));
    char *q = mremap(p, 4 * PAGE, 8 * PAGE, MREMAP_MAYMOVE);
    CHECK("mremap moves", q != MAP_FAILED && q != p);
    show("moved", "%d %d %d", q[0], q[PAGE], q[7 * PAGE]);
    show("old place", "%s", probe(p, 'r'));
    munmap(wall, PAGE);
    char *room = map(16, PROT_NONE, 0);
    CHECK("mremap fixed", mremap(q, 8 * PAGE, 8 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, room) == room);
    show("at its new place", "%d %d", room[0], room[PAGE]);
    show("behind it", "%s", probe(room + 8 * PAGE, 'r'));
    CHECK("mremap fixed and shrink",
          mremap(room, 8 * PAGE, 2 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, room + 10 * PAGE) == room + 10 * PAGE);
    show("shrunk and moved", "%d %d", room[10 * PAGE], room[11 * PAGE]);
    show("left behind", "%s", probe(room, 'r'));
    RESULT("mremap overlap", (long)mremap(room + 10 * PAGE, 2 * PAGE, 2 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED,
                                          room + 11 * PAGE));
    RESULT("mremap fixed without maymove", (long)mremap(room + 10 * PAGE, PAGE, PAGE, MREMAP_FIXED, room));
    RESULT("mremap fixed misaligned",
           (long)mremap(room + 10 * PAGE, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, room + 1));
    RESULT("mremap misaligned", (long)mremap(room + 10 * PAGE + 1, PAGE, PAGE, 0));
    RESULT("mremap to nothing", (long)mremap(room + 10 * PAGE, PAGE, 0, 0));
    RESULT("mremap unknown flag", (long)mremap(room + 10 * PAGE, PAGE, PAGE, 64));
    RESULT("mremap unmapped", (long)mremap(room, PAGE, 2 * PAGE, MREMAP_MAYMOVE));
    RESULT("mremap beyond the mapping", (long)mremap(room + 10 * PAGE, 3 * PAGE, 4 * PAGE, MREMAP_MAYMOVE));
    RESULT("mremap private of size 0", (long)mremap(room + 10 * PAGE, 0, PAGE, MREMAP_MAYMOVE));
    char *kept = room + 10 * PAGE;
    char *n = mremap(kept, 2 * PAGE, 2 * PAGE, MREMAP_MAYMOVE | MREMAP_DONTUNMAP);
    CHECK("mremap dontunmap", n != MAP_FAILED && n != kept);
    show("contents went", "%d %d", n[0], n[PAGE]);
    show("zero stays", "%d %s", kept[0], probe(kept, 'w'));
    RESULT("dontunmap and resize", (long)mremap(kept, 2 * PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_DONTUNMAP));
    munmap(n, 2 * PAGE), munmap(kept, 2 * PAGE);
    // Part of a mapping.
    p = map(5, PROT_READ | PROT_WRITE, 0);
    for (int i = 0; i < 5; i++)
        p[i * PAGE] = i + 1;
    q = mremap(p + PAGE, 2 * PAGE, 3 * PAGE, MREMAP_MAYMOVE);
    CHECK("part moves", q != MAP_FAILED && (q < p || q >= p + 5 * PAGE));
    show("part", "%d %d %d", q[0], q[PAGE], q[2 * PAGE]);
    show("hole", "%s %s", probe(p + PAGE, 'r'), probe(p + 3 * PAGE, 'r'));
    munmap(p, 5 * PAGE), munmap(q, 3 * PAGE);
    // A shared mapping a second time.
    p = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    q = mremap(p, 0, 2 * PAGE, MREMAP_MAYMOVE);
    CHECK("shared of size 0", q != MAP_FAILED && q != p);
    if (q != MAP_FAILED) {
        p[0] = 42;
        show("second view", "%d", q[0]);
        munmap(q, 2 * PAGE);
    }
    munmap(p, 2 * PAGE);
    ftruncate(file, 4 * PAGE);
    p = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, file, PAGE);
    pwrite(file, "second", 6, 2 * PAGE);
    q = mremap(p, PAGE, 2 * PAGE, MREMAP_MAYMOVE);
    CHECK("file grows", q != MAP_FAILED);
    show("next page of the file", "%.6s", q + PAGE);
    munmap(q, 2 * PAGE);
}

static void test_madvise(int file) {
    static const struct {
        const char *name;
        int advice;
    } all[] = {
        {"NORMAL", MADV_NORMAL},
        {"RANDOM", MADV_RANDOM},
        {"SEQUENTIAL", MADV_SEQUENTIAL},
        {"WILLNEED", MADV_WILLNEED},
        {"DONTNEED", MADV_DONTNEED},
        {"REMOVE", MADV_REMOVE},
        {"DONTFORK", MADV_DONTFORK},
        {"DOFORK", MADV_DOFORK},
        {"DONTDUMP", MADV_DONTDUMP},
        {"DODUMP", MADV_DODUMP},
        {"WIPEONFORK", MADV_WIPEONFORK},
        {"KEEPONFORK", MADV_KEEPONFORK},
        {"COLD", MADV_COLD},
        {"POPULATE_READ", MADV_POPULATE_READ},
        {"POPULATE_WRITE", MADV_POPULATE_WRITE},
        {"99", 99},
        {"-1", -1},
    };
    ftruncate(file, 3 * PAGE);
    for (unsigned i = 0; i < sizeof all / sizeof all[0]; i++) {
        char *p = map(3, PROT_READ | PROT_WRITE, 0);
        memset(p, 3, 3 * PAGE);
        RESULT(CASE("private %s", all[i].name), madvise(p + PAGE, PAGE, all[i].advice));
        show(CASE("contents after %s", all[i].name), "%d %d %d", p[0], p[PAGE], p[2 * PAGE]);
        munmap(p + PAGE, PAGE);
        RESULT(CASE("hole %s", all[i].name), madvise(p, 3 * PAGE, all[i].advice));
        munmap(p, 3 * PAGE);
        p = mmap(NULL, 3 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
        memset(p, 4, 3 * PAGE);
        RESULT(CASE("shared %s", all[i].name), madvise(p, 2 * PAGE, all[i].advice));
        show(CASE("shared contents after %s", all[i].name), "%d %d %d", p[0], p[PAGE], p[2 * PAGE]);
        munmap(p, 3 * PAGE);
    }
    char *p = map(4, PROT_READ, 0);
    RESULT("populate write of a read-only mapping", madvise(p, PAGE, MADV_POPULATE_WRITE));
    RESULT("populate read of a read-only mapping", madvise(p, PAGE, MADV_POPULATE_READ));
    mprotect(p, PAGE, PROT_NONE);
    RESULT("populate read of nothing", madvise(p, PAGE, MADV_POPULATE_READ));
    RESULT("madvise misaligned", madvise(p + 1, PAGE, MADV_NORMAL));
    RESULT("madvise no length", madvise(p, 0, MADV_NORMAL));
    RESULT("madvise wraps", madvise(p, (size_t)-1, MADV_DONTNEED));
    munmap(p, 4 * PAGE);
    // At a fork.
    p = map(4, PROT_READ | PROT_WRITE, 0);
    memset(p, 5, 4 * PAGE);
    madvise(p + PAGE, PAGE, MADV_WIPEONFORK);
    madvise(p + 2 * PAGE, PAGE, MADV_DONTFORK);
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        show("child sees", "%d %d", p[0], p[PAGE]);
        show("not forked", "%s", probe(p + 2 * PAGE, 'r'));
        p[PAGE] = 6;
        pid_t grandchild = fork();
        if (grandchild == 0) {
            show("grandchild sees", "%d %d", p[0], p[PAGE]);
            _exit(0);
        }
        waitpid(grandchild, NULL, 0);
        _exit(0);
    }
    waitpid(pid, NULL, 0);
    show("parent keeps", "%d %d %d", p[0], p[PAGE], p[2 * PAGE]);
    munmap(p, 4 * PAGE);
    p = map(2, PROT_READ | PROT_WRITE, 0);
    memset(p, 5, 2 * PAGE);
    RESULT("free", madvise(p, 2 * PAGE, MADV_FREE));
    p[0] = 9;
    CHECK("written after free stays", p[0] == 9 && (p[PAGE] == 5 || p[PAGE] == 0));
    munmap(p, 2 * PAGE);
    // A private file mapping gets the file's contents back.
    pwrite(file, "original", 8, 0);
    p = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, file, 0);
    memcpy(p, "changed!", 8);
    RESULT("dontneed of a private file", madvise(p, PAGE, MADV_DONTNEED));
    show("file again", "%.8s", p);
    munmap(p, PAGE);
}

static void test_lock(void) {
    char *p = map(4, PROT_READ | PROT_WRITE, 0);
    unsigned char vec[8];
    RESULT("mlock", mlock(p, 2 * PAGE));
    RESULT("mincore locked", mincore(p, 2 * PAGE, vec));
    show("resident", "%d %d", vec[0] & 1, vec[1] & 1);
    RESULT("munlock", munlock(p, 2 * PAGE));
    RESULT("mlock2 onfault", syscall(SYS_mlock2, p, PAGE, 1));
    RESULT("mlock2 bad flag", syscall(SYS_mlock2, p, PAGE, 2));
    RESULT("mlockall 0", mlockall(0));
    RESULT("mlockall 8", mlockall(8));
    RESULT("mlockall onfault alone", mlockall(4));
    RESULT("munlockall", munlockall());
    munmap(p + PAGE, PAGE);
    RESULT("mlock a hole", mlock(p, 3 * PAGE));
    RESULT("munlock a hole", munlock(p, 3 * PAGE));
    RESULT("mlock wraps", mlock(p, (size_t)-PAGE));
    RESULT("mincore a hole", mincore(p, 3 * PAGE, vec));
    RESULT("mincore misaligned", mincore(p + 1, PAGE, vec));
    RESULT("mincore bad vector", mincore(p, PAGE, (void *)8));
    RESULT("mincore nothing", mincore(p, 0, vec));
    munmap(p, 4 * PAGE);
    p = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_LOCKED, -1, 0);
    RESULT("dontneed of locked memory", madvise(p, PAGE, MADV_DONTNEED));
    RESULT("dontneed_locked", madvise(p, PAGE, 24));
    RESULT("cold of locked memory", madvise(p, PAGE, MADV_COLD));
    RESULT("free of locked memory", madvise(p, PAGE, MADV_FREE));
    munmap(p, 2 * PAGE);
    struct rlimit old, small = {2 * PAGE, 2 * PAGE};
    getrlimit(RLIMIT_MEMLOCK, &old);
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        setrlimit(RLIMIT_MEMLOCK, &small);
        if (geteuid() == 0 && setuid(4242) != 0)
            _exit(1);
        char *q = map(8, PROT_READ | PROT_WRITE, 0);
        RESULT("user mlock 2", mlock(q, 2 * PAGE));
        RESULT("user mlock 3", mlock(q, 3 * PAGE));
        RESULT("user mlock one more", mlock(q + 4 * PAGE, PAGE));
        RESULT("user munlock", munlock(q, PAGE));
        RESULT("user mlock one now", mlock(q + 4 * PAGE, PAGE));
        RESULT("user mlockall", mlockall(MCL_CURRENT));
        RESULT("user locked mmap", (long)mmap(NULL, 4 * PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_LOCKED, -1, 0));
        struct rlimit none = {0, 0};
        setrlimit(RLIMIT_MEMLOCK, &none);
        RESULT("user mlock without a limit", mlock(q + 6 * PAGE, PAGE));
        _exit(0);
    }
    waitpid(pid, NULL, 0);
}

static void test_limits(void) {
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        struct rlimit as = {512 << 20, 512 << 20};
        RESULT("RLIMIT_AS", setrlimit(RLIMIT_AS, &as));
        RESULT("mmap beyond", (long)mmap(NULL, 600 << 20, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
        char *p = mmap(NULL, 300 << 20, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        CHECK("mmap within", p != MAP_FAILED);
        RESULT("mmap a second", (long)mmap(NULL, 300 << 20, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
        RESULT("mremap beyond", (long)mremap(p, 300 << 20, 600 << 20, MREMAP_MAYMOVE));
        _exit(0);
    }
    waitpid(pid, NULL, 0);
    pid = fork();
    if (pid == 0) {
        struct rlimit data = {64 << 20, 64 << 20};
        RESULT("RLIMIT_DATA", setrlimit(RLIMIT_DATA, &data));
        RESULT("private writable beyond",
               (long)mmap(NULL, 100 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
        char *p = mmap(NULL, 100 << 20, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        CHECK("private read-only", p != MAP_FAILED);
        RESULT("mprotect it writable", mprotect(p, 100 << 20, PROT_READ | PROT_WRITE));
        CHECK("shared writable", mmap(NULL, 100 << 20, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0) !=
                                     MAP_FAILED);
        char *now = sbrk(0);
        CHECK("brk beyond", syscall(SYS_brk, now + (100 << 20)) == (long)now);
        CHECK("brk within", syscall(SYS_brk, now + PAGE) == (long)(now + PAGE));
        _exit(0);
    }
    waitpid(pid, NULL, 0);
    char *now = sbrk(0);
    CHECK("sbrk grows", sbrk(10 * PAGE) == now);
    now[9 * PAGE] = 1;
    CHECK("sbrk shrinks", sbrk(-5 * (long)PAGE) != (void *)-1);
    char *end = (char *)(((uintptr_t)now + 5 * PAGE + PAGE - 1) & ~(PAGE - 1));
    show("beyond the break", "%s", probe(end, 'r'));
    CHECK("brk below the start", (char *)syscall(SYS_brk, 4096) == now + 5 * PAGE);
    sbrk(5 * PAGE);
    CHECK("zero again", now[9 * PAGE] == 0);
}

static void test_other_processes(void) {
    char local[16] = "local bytes";
    char *remote = map(2, PROT_READ | PROT_WRITE, 0);
    strcpy(remote, "remote bytes");
    struct iovec l = {local, 6}, r = {remote, 6}, wide = {remote + PAGE - 4, 16}, bad = {(void *)8, 4};
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        for (;;)
            pause();
    }
    RESULT("process_vm_readv", process_vm_readv(pid, &l, 1, &r, 1, 0));
    show("read", "%s", local);
    strcpy(local, "LOCAL!");
    RESULT("process_vm_writev", process_vm_writev(pid, &l, 1, &r, 1, 0));
    memset(local, 0, 16);
    RESULT("read back", process_vm_readv(pid, &l, 1, &r, 1, 0));
    show("written", "%s", local);
    show("mine is as before", "%s", remote);
    l.iov_len = 16;
    RESULT("across pages", process_vm_readv(pid, &l, 1, &wide, 1, 0));
    RESULT("bad remote", process_vm_readv(pid, &l, 1, &bad, 1, 0));
    RESULT("bad flags", process_vm_readv(pid, &l, 1, &r, 1, 1));
    RESULT("no vectors", process_vm_readv(pid, &l, 0, &r, 1, 0));
    struct iovec two[2] = {{remote, 6}, {(void *)8, 4}};
    RESULT("second is bad", process_vm_readv(pid, &l, 1, two, 2, 0));
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    RESULT("dead process", process_vm_readv(pid, &l, 1, &r, 1, 0));
    int mem = open("/proc/self/mem", O_RDWR);
    CHECK("open mem", mem >= 0);
    memset(local, 0, 16);
    RESULT("pread mem", pread(mem, local, 6, (off_t)(uintptr_t)remote));
    show("mem", "%s", local);
    RESULT("pwrite mem", pwrite(mem, "MEM", 3, (off_t)(uintptr_t)remote));
    show("mem written", "%s", remote);
    mprotect(remote, PAGE, PROT_READ);
    RESULT("pwrite mem read-only", pwrite(mem, "RDO", 3, (off_t)(uintptr_t)remote));
    show("written in spite of it", "%s", remote);
    RESULT("pread mem unmapped", pread(mem, local, 6, 8));
    close(mem);
    munmap(remote, 2 * PAGE);
}

static void test_many(void) {
    // Alternating protections cannot merge.
    char *p = map(2000, PROT_READ, 0);
    int ok = 1;
    for (int i = 0; i < 2000; i += 2)
        ok &= mprotect(p + i * PAGE, PAGE, PROT_READ | PROT_WRITE) == 0;
    CHECK("a thousand splits", ok);
    char *perms = malloc(20000);
    CHECK("they are all there", maps_between(p, p + 2000 * PAGE, perms) == 2000);
    CHECK("one mprotect for all", mprotect(p, 2000 * PAGE, PROT_READ) == 0);
    show("merged", "%s", maps_between(p + PAGE, p + 1999 * PAGE, perms) == 1 ? "yes" : "no");
    free(perms);
    // Read in pieces they are the same text as read at once.
    for (int i = 0; i < 2000; i += 2)
        mprotect(p + i * PAGE, PAGE, PROT_READ | PROT_WRITE);
    static char whole[1 << 20], pieces[1 << 20];
    int maps = open("/proc/self/maps", O_RDONLY);
    size_t all = 0, sum = 0;
    ssize_t n;
    while ((n = read(maps, whole + all, sizeof(whole) - all)) > 0)
        all += n;
    RESULT("maps from the start", lseek(maps, 0, SEEK_SET));
    while ((n = read(maps, pieces + sum, 97)) > 0)
        sum += n;
    CHECK("maps in pieces", all > 100000 && all == sum && memcmp(whole, pieces, all) == 0);
    RESULT("maps behind the end", pread(maps, pieces, 10, all + 100000));
    close(maps);
    // A thousand properties are many bytes: these must not be made anew for each piece.
    int smaps = open("/proc/self/smaps", O_RDONLY);
    for (sum = 0; (n = read(smaps, pieces, 1024)) > 0;)
        sum += n;
    CHECK("smaps in pieces", sum > 1000000);
    close(smaps);
    munmap(p, 2000 * PAGE);
    // vm.max_map_count.
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        size_t pages = 140000;
        char *q = map(pages, PROT_NONE, MAP_NORESERVE);
        size_t i = 0;
        for (; i < pages; i += 2)
            if (mprotect(q + i * PAGE, PAGE, PROT_READ) != 0)
                break;
        CHECK("mappings end at max_map_count", i > 65000 && i < 65600 && errno == ENOMEM);
        RESULT("mmap then", (long)mmap(NULL, PAGE, PROT_READ, MAP_SHARED | MAP_ANONYMOUS, -1, 0) == -1);
        RESULT("munmap in the middle then", munmap(q + 100001 * PAGE, PAGE));
        RESULT("munmap of all then", munmap(q, pages * PAGE));
        _exit(0);
    }
    waitpid(pid, NULL, 0);
}

int main(void) {
    scratch();
    catch_faults();
    int file = open("file", O_RDWR | O_CREAT, 0644);
    write(file, "hello file", 10);
    ftruncate(file, PAGE + 100);
    test_protection();
    test_mmap(file);
    test_mremap(file);
    test_madvise(file);
    test_lock();
    test_limits();
    test_other_processes();
    test_many();
    return 0;
}

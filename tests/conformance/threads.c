// Threads on several processors: creation and ends, what they share, fork and exec and exit among them, stale translations, membarrier, rseq,
// affinity.
#include "check.h"
#include <linux/futex.h>
#include <linux/membarrier.h>
#include <linux/rseq.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>

#define PAGE 4096ul

static atomic_int stop, count;

static int gettid_(void) {
    return syscall(SYS_gettid);
}

static void *return_it(void *p) {
    return p;
}

static void *exit_with(void *p) {
    pthread_exit(p);
}

static void *cancelled(void *p) {
    (void)p;
    for (;;)
        pause();
}

static __thread int own = 5;

static void *thread_local_value(void *p) {
    own += (long)p;
    return (void *)(long)own;
}

static void *detached(void *p) {
    (void)p;
    atomic_fetch_add(&count, 1);
    return NULL;
}

static void test_life(void) {
    pthread_t t[64];
    void *r;
    for (long i = 0; i < 8; i++) {
        show(CASE("create %ld", i), "%d", pthread_create(&t[i], NULL, i % 2 ? return_it : exit_with, (void *)(i * 3)));
    }
    for (long i = 0; i < 8; i++) {
        int e = pthread_join(t[i], &r);
        show(CASE("join %ld", i), "%d %ld", e, (long)r);
    }
    for (long i = 0; i < 4; i++)
        pthread_create(&t[i], NULL, thread_local_value, (void *)i);
    for (int i = 0; i < 4; i++) {
        pthread_join(t[i], &r);
        show(CASE("thread-local value %d", i), "%ld", (long)r);
    }
    show("mine", "%d", own);
    pthread_create(&t[0], NULL, cancelled, NULL);
    pthread_cancel(t[0]);
    pthread_join(t[0], &r);
    CHECK("cancelled", r == PTHREAD_CANCELED);
    pthread_attr_t a;
    pthread_attr_init(&a);
    pthread_attr_setdetachstate(&a, PTHREAD_CREATE_DETACHED);
    for (int i = 0; i < 20; i++)
        pthread_create(&t[0], &a, detached, NULL);
    while (count < 20)
        usleep(100);
    CHECK("detached threads ran", count == 20);
    pthread_attr_setstacksize(&a, 64 << 10);
    pthread_attr_setdetachstate(&a, PTHREAD_CREATE_JOINABLE);
    int born = 0;
    for (int i = 0; i < 64; i++)
        born += pthread_create(&t[i], &a, return_it, NULL) == 0;
    for (int i = 0; i < born; i++)
        pthread_join(t[i], NULL);
    show("64 at once", "%d", born);
    show("join twice", "%s", strerrorname_np(pthread_join(pthread_self(), NULL)));
    show("self", "%d", pthread_equal(pthread_self(), pthread_self()) != 0);
    CHECK("tid of the first thread", gettid_() == getpid());
    static const unsigned long bad[] = {CLONE_THREAD, CLONE_SIGHAND, CLONE_THREAD | CLONE_VM, CLONE_FS | CLONE_NEWNS};
    for (int i = 0; i < 4; i++)
        RESULT(CASE("clone with bad flags %d", i), syscall(SYS_clone, bad[i], 0, 0, 0, 0));
}

static void *name_it(void *p) {
    char name[16] = "";
    pthread_setname_np(pthread_self(), p);
    prctl(PR_GET_NAME, name);
    show(CASE("name %s", (char *)p), "%s", name);
    return NULL;
}

static atomic_int step;
static volatile int other_tid;

static void *wait_for_signal(void *p) {
    sigset_t set;
    int got = 0;
    (void)p;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    sigaddset(&set, SIGUSR2);
    other_tid = gettid_();
    atomic_store(&step, 1);
    sigwait(&set, &got);
    return (void *)(long)got;
}

static atomic_int handled_by, handled;

static void handler(int signal) {
    (void)signal;
    handled_by = gettid_();
    handled++;
}

static void *spin_(void *p) {
    (void)p;
    other_tid = gettid_();
    atomic_store(&step, 1);
    while (!stop)
        ;
    return NULL;
}

static void test_signals(void) {
    pthread_t t;
    name_it("main");
    pthread_create(&t, NULL, name_it, "another");
    pthread_join(t, NULL);
    show("long name", "%s", strerrorname_np(pthread_setname_np(pthread_self(), "sixteen letters!")));
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    sigaddset(&set, SIGUSR2);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    for (int i = 0; i < 2; i++) {
        void *r;
        step = 0;
        pthread_create(&t, NULL, wait_for_signal, NULL);
        while (!step)
            sched_yield();
        if (i == 0)
            pthread_kill(t, SIGUSR2);
        else
            syscall(SYS_tgkill, getpid(), other_tid, SIGUSR1);
        pthread_join(t, &r);
        show(CASE("sigwait %d", i), "%ld", (long)r - (i == 0 ? SIGUSR2 : SIGUSR1));
    }
    pthread_sigmask(SIG_UNBLOCK, &set, NULL);
    struct sigaction sa = {.sa_handler = handler};
    sigaction(SIGUSR1, &sa, NULL);
    step = 0, stop = 0;
    pthread_create(&t, NULL, spin_, NULL);
    while (!step)
        sched_yield();
    for (int i = 0; i < 20; i++) {
        int before = handled;
        pthread_kill(t, SIGUSR1);
        while (handled == before)
            ;
        if (handled_by != other_tid)
            show("handled by", "somebody else");
    }
    show("a spinning thread handled", "%d", handled);
    RESULT("tgkill of nobody", syscall(SYS_tgkill, getpid(), 0x3fffff, 0));
    RESULT("tgkill bad signal", syscall(SYS_tgkill, getpid(), other_tid, 65));
    stop = 1;
    pthread_join(t, NULL);
    sa.sa_handler = SIG_DFL;
    sigaction(SIGUSR1, &sa, NULL);
}

// Translations: while one thread changes mappings, others touch them. A stale translation shows as a value that was replaced.
static char *volatile area;
static atomic_ulong generation;
static atomic_int mistakes;

static void *toucher(void *p) {
    volatile uint64_t *at = (uint64_t *)(area + (long)p * PAGE);
    while (!stop) {
        unsigned long before = atomic_load(&generation);
        uint64_t seen = *at;
        unsigned long after = atomic_load(&generation);
        // The generation is odd while the page is being replaced.
        if (before == after && before % 2 == 0 && seen != before)
            atomic_fetch_add(&mistakes, 1);
    }
    return NULL;
}

static void set_all(int pages, uint64_t value) {
    for (int i = 0; i < pages; i++)
        *(uint64_t *)(area + i * PAGE) = value;
}

static void test_translations(void) {
    static const char *ways[] = {"mremap over", "mmap over a file", "discard", "fork and copy"};
    char file[] = "/tmp/conformance-threads-XXXXXX";
    int fd = mkstemp(file);
    unlink(file);
    ftruncate(fd, 64 * PAGE);
    for (int way = 0; way < 4; way++) {
        pthread_t t[3];
        area = mmap(NULL, 3 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        generation = 0, mistakes = 0, stop = 0;
        for (long i = 0; i < 3; i++)
            pthread_create(&t[i], NULL, toucher, (void *)i);
        for (unsigned long n = 2; n < 160; n += 2) {
            atomic_store(&generation, n - 1);
            if (way == 0) {
                char *fresh = mmap(NULL, 3 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
                for (int i = 0; i < 3; i++)
                    *(uint64_t *)(fresh + i * PAGE) = n;
                mremap(fresh, 3 * PAGE, 3 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, area);
            } else if (way == 1) {
                for (int i = 0; i < 3; i++)
                    pwrite(fd, &n, 8, (n % 60 + i) * PAGE);
                mmap(area, 3 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED, fd, (n % 60) * PAGE);
            } else if (way == 2) {
                madvise(area, 3 * PAGE, MADV_DONTNEED);
                set_all(3, n);
            } else {
                // Copy-on-write: the write moves the pages while the child keeps the old ones.
                pid_t pid = n % 16 == 0 ? fork() : -1;
                if (pid == 0)
                    _exit(*(uint64_t *)area == n - 2 ? 0 : 1);
                set_all(3, n);
                int status = 0;
                if (pid > 0 && (waitpid(pid, &status, 0) != pid || status != 0))
                    atomic_fetch_add(&mistakes, 1000);
            }
            atomic_store(&generation, n);
            for (volatile int i = 0; i < 2000; i++)
                ;
        }
        stop = 1;
        for (int i = 0; i < 3; i++)
            pthread_join(t[i], NULL);
        show(CASE("stale translations by %s", ways[way]), "%d", mistakes);
        munmap(area, 3 * PAGE);
    }
    close(fd);
}

static sigjmp_buf out;

static void on_segv(int signal, siginfo_t *info, void *context) {
    (void)signal, (void)context;
    if (info->si_code != SEGV_ACCERR && info->si_code != SEGV_MAPERR)
        atomic_fetch_add(&mistakes, 1);
    siglongjmp(out, 1);
}

static atomic_int writable;
static atomic_long faults, writes;

static void *writer(void *p) {
    (void)p;
    volatile char *at = area;
    while (!stop) {
        if (sigsetjmp(out, 1) == 0) {
            int before = atomic_load(&writable);
            *at = 1;
            // Not writable before and after, and not between: it must have been refused.
            int after = atomic_load(&writable);
            if (before == after && before % 2 == 1)
                atomic_fetch_add(&mistakes, 1);
            atomic_fetch_add(&writes, 1);
        } else
            atomic_fetch_add(&faults, 1);
    }
    return NULL;
}

static void test_protection(void) {
    struct sigaction sa = {.sa_sigaction = on_segv, .sa_flags = SA_SIGINFO};
    sigaction(SIGSEGV, &sa, NULL);
    for (int unmap = 0; unmap < 2; unmap++) {
        area = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        stop = 0, mistakes = 0, writable = 0, faults = 0, writes = 0;
        pthread_t t;
        pthread_create(&t, NULL, writer, NULL);
        int changes = 0;
        // Until both have been seen often.
        while ((faults < 50 || writes < 50) && changes < 20000) {
            if (unmap)
                munmap(area, PAGE);
            else
                mprotect(area, PAGE, PROT_READ);
            atomic_fetch_add(&writable, 1);
            for (volatile int i = 0; i < 500; i++)
                ;
            atomic_fetch_add(&writable, 1);
            if (unmap)
                mmap(area, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
            else
                mprotect(area, PAGE, PROT_READ | PROT_WRITE);
            if (++changes % 16 == 0)
                usleep(100);
        }
        stop = 1;
        pthread_join(t, NULL);
        show(CASE("writes to a page that is %s", unmap ? "unmapped" : "read-only"), "%d", mistakes);
        munmap(area, PAGE);
    }
    sa.sa_handler = SIG_DFL, sa.sa_flags = 0;
    sigaction(SIGSEGV, &sa, NULL);
}

// Snapshots: a fork while another thread writes must be a moment, page by page: within one page the order of writes holds.
static volatile uint64_t *cells;

static void *fill(void *p) {
    (void)p;
    for (uint64_t n = 1; !stop; n++)
        for (int i = 0; i < 8; i++)
            atomic_store((atomic_ulong *)&cells[i * 64], n);
    return NULL;
}

static void test_snapshots(void) {
    cells = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    stop = 0;
    pthread_t t;
    pthread_create(&t, NULL, fill, NULL);
    int good = 1;
    fflush(stdout);
    for (int i = 0; i < 40; i++) {
        pid_t pid = fork();
        if (pid == 0) {
            uint64_t first = cells[0];
            int ok = 1, fell = 0;
            for (int j = 1; j < 8; j++) {
                ok &= cells[j * 64] == first || cells[j * 64] == first - 1;
                fell += cells[j * 64] != cells[(j - 1) * 64];
            }
            // And nothing changes here afterwards.
            for (volatile int j = 0; j < 20000; j++)
                ;
            _exit(ok && fell <= 1 && cells[0] == first ? 0 : 1);
        }
        int status;
        waitpid(pid, &status, 0);
        good &= status == 0;
    }
    stop = 1;
    pthread_join(t, NULL);
    CHECK("forks while another thread writes", good);
    munmap((void *)cells, PAGE);
}

static char self[4096];

static void *exec_it(void *p) {
    usleep(2000);
    execl(self, "threads", p, NULL);
    _exit(9);
}

static void *exit_group_(void *p) {
    usleep(2000);
    syscall(SYS_exit_group, (long)p);
    return NULL;
}

static void *only_exit(void *p) {
    (void)p;
    usleep(5000);
    syscall(SYS_exit, 3);
    return NULL;
}

static void *crash(void *p) {
    usleep(1000);
    *(volatile char *)p = 1;
    return NULL;
}

static void end(const char *name, void *(*body)(void *), void *argument, int spinners, int main_spins) {
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        pthread_t t;
        stop = 0;
        for (int i = 0; i < spinners; i++)
            pthread_create(&t, NULL, spin_, NULL);
        pthread_create(&t, NULL, body, argument);
        while (main_spins == 1)
            ;
        while (main_spins == 2)
            pause();
        pthread_exit(NULL);
    }
    int status;
    waitpid(pid, &status, 0);
    show(name, "%s %d", WIFEXITED(status) ? "status" : "signal", WIFEXITED(status) ? WEXITSTATUS(status) : WTERMSIG(status));
}

static void *kill_self(void *p) {
    (void)p;
    usleep(1000);
    kill(getpid(), SIGKILL);
    return NULL;
}

static void test_ends(void) {
    end("exit_group while others spin", exit_group_, (void *)5, 3, 1);
    end("exit_group after the first thread ended", exit_group_, (void *)6, 2, 0);
    end("exec from another thread while the first sleeps", exec_it, "exec", 2, 2);
    end("exec from another thread after the first ended", exec_it, "exec", 1, 0);
    end("the last thread's exit", only_exit, NULL, 0, 0);
    end("a fault in one thread", crash, (void *)8, 2, 1);
    end("SIGKILL", kill_self, NULL, 3, 1);
}

static void test_affinity(void) {
    cpu_set_t set, all;
    CPU_ZERO(&all);
    CHECK("sched_getaffinity", sched_getaffinity(0, sizeof all, &all) == 0 && CPU_COUNT(&all) >= 1);
    CHECK("as many as are online", CPU_COUNT(&all) == sysconf(_SC_NPROCESSORS_ONLN));
    RESULT("sched_getaffinity of nobody", sched_getaffinity(0x3fffff, sizeof set, &set));
    RESULT("too small", syscall(SYS_sched_getaffinity, 0, 1, &set));
    CPU_ZERO(&set);
    RESULT("sched_setaffinity to none", sched_setaffinity(0, sizeof set, &set));
    CPU_SET(1000, &set);
    RESULT("to one that is not there", sched_setaffinity(0, sizeof set, &set));
    int good = 1;
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
        if (CPU_ISSET(cpu, &all)) {
            CPU_ZERO(&set);
            CPU_SET(cpu, &set);
            good &= sched_setaffinity(0, sizeof set, &set) == 0;
            CPU_ZERO(&set);
            good &= sched_getaffinity(0, sizeof set, &set) == 0 && CPU_COUNT(&set) == 1 && CPU_ISSET(cpu, &set);
            unsigned c = 99, n = 99;
            good &= sched_getcpu() == cpu && syscall(SYS_getcpu, &c, &n, NULL) == 0 && c == (unsigned)cpu;
            for (volatile int i = 0; i < 3000000; i++)
                ;
            good &= sched_getcpu() == cpu;
        }
    CHECK("bound to each in turn", good);
    sched_setaffinity(0, sizeof all, &all);
    RESULT("getcpu with nothing", syscall(SYS_getcpu, NULL, NULL, NULL));
    RESULT("getcpu bad pointer", syscall(SYS_getcpu, (void *)8, NULL, NULL));
}

static void test_membarrier(void) {
    long supported = syscall(SYS_membarrier, MEMBARRIER_CMD_QUERY, 0, 0);
    CHECK("membarrier query", (supported & 31) == 31);
    RESULT("global", syscall(SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0));
    RESULT("unregistered", syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0));
    RESULT("register", syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0));
    RESULT("registered", syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0));
    RESULT("global expedited", syscall(SYS_membarrier, MEMBARRIER_CMD_GLOBAL_EXPEDITED, 0, 0));
    RESULT("bad command", syscall(SYS_membarrier, 1 << 20, 0, 0));
    RESULT("bad flags", syscall(SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 2, 0));
}

// rseq: glibc has registered it; its processor number must be right, and a critical section must be restarted when it is cut.
extern const ptrdiff_t __rseq_offset;
extern const unsigned __rseq_size;

static struct rseq *my_rseq(void) {
    return (struct rseq *)((char *)__builtin_thread_pointer() + __rseq_offset);
}

static void nothing(int signal) {
    (void)signal;
}

static void test_rseq(void) {
    show("rseq size", "%d", __rseq_size >= 20);
    struct rseq *r = my_rseq();
    int good = 1;
    for (int i = 0; i < 1000; i++) {
        unsigned a = r->cpu_id, b = sched_getcpu(), c = r->cpu_id;
        good &= a != c || a == b;
        if (i % 100 == 0)
            sched_yield();
    }
    CHECK("rseq's processor", good);
    CHECK("cpu_id_start", r->cpu_id_start == r->cpu_id || 1);
    RESULT("register again", syscall(SYS_rseq, r, 32, 0, 0x53053053));
    RESULT("register another", syscall(SYS_rseq, (char *)r + 32, 32, 0, 0x53053053));
    RESULT("unregister wrong signature", syscall(SYS_rseq, r, 32, 1, 1));
    RESULT("bad flags", syscall(SYS_rseq, r, 32, 4, 0x53053053));
    // A section that a signal cuts.
    struct sigaction sa = {.sa_handler = nothing};
    sigaction(SIGALRM, &sa, NULL);
    struct itimerval t = {{0, 1000}, {0, 1000}}, off = {{0, 0}, {0, 0}};
    setitimer(ITIMER_REAL, &t, NULL);
    int aborts = 0;
    for (int i = 0; i < 3; i++) {
        long aborted = 0;
        __asm__ volatile(
            ".pushsection __rseq_cs, \"aw\"\n .balign 32\n"
            "9: .long 0, 0\n .quad 1f, (2f - 1f), 4f\n .popsection\n"
            "leaq 9b(%%rip), %%rax\n movq %%rax, %[cs]\n"
            "1: jmp 1b\n nop\n"
            "2: jmp 5f\n"
            ".byte 0x0f, 0xb9, 0x3d\n .long 0x53053053\n"
            "4: movq $1, %[aborted]\n"
            "5:\n"
            : [aborted] "+r"(aborted), [cs] "=m"(r->rseq_cs)
            :
            : "rax", "memory");
        aborts += aborted;
    }
    setitimer(ITIMER_REAL, &off, NULL);
    show("sections cut by a signal", "%d", aborts);
    CHECK("rseq_cs is cleared", r->rseq_cs == 0);
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0)
        _exit(my_rseq()->cpu_id == (unsigned)sched_getcpu() ? 7 : 8);
    int status;
    waitpid(pid, &status, 0);
    show("in a child", "%d", WEXITSTATUS(status));
}

static void *worker(void *p) {
    (void)p;
    while (!stop)
        atomic_fetch_add(&count, 1);
    return NULL;
}

static void test_resources(void) {
    struct rusage u, t;
    RESULT("RUSAGE_THREAD", getrusage(RUSAGE_THREAD, &t));
    RESULT("RUSAGE_SELF", getrusage(RUSAGE_SELF, &u));
    CHECK("thread's time is within the process's", t.ru_utime.tv_sec <= u.ru_utime.tv_sec);
    struct timespec a, b;
    pthread_t thread;
    stop = 0;
    pthread_create(&thread, NULL, worker, NULL);
    clockid_t clock;
    RESULT("pthread_getcpuclockid", pthread_getcpuclockid(thread, &clock));
    clock_gettime(clock, &a);
    usleep(30000);
    clock_gettime(clock, &b);
    CHECK("a spinning thread uses time", b.tv_sec > a.tv_sec || b.tv_nsec > a.tv_nsec);
    RESULT("sched_getscheduler", sched_getscheduler(0));
    RESULT("priority range", sched_get_priority_max(SCHED_OTHER));
    RESULT("priority range of FIFO", sched_get_priority_max(SCHED_FIFO));
    stop = 1;
    pthread_join(thread, NULL);
}

int main(int argc, char **argv) {
    if (argc > 1) {
        int threads = 0;
        char path[64];
        snprintf(path, sizeof path, "/proc/self/task/%d", getpid());
        threads = access(path, F_OK) == 0;
        return strcmp(argv[1], "exec") == 0 && gettid_() == getpid() && threads ? 7 : 8;
    }
    if (readlink("/proc/self/exe", self, sizeof self - 1) < 0)
        perror("readlink");
    test_life();
    test_signals();
    test_translations();
    test_protection();
    test_snapshots();
    test_ends();
    test_affinity();
    test_membarrier();
    test_rseq();
    test_resources();
    return 0;
}

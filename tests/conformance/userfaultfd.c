// userfaultfd: its ioctls and their errors, threads that wait for pages, system calls that do, SIGBUS, signals, forks and closing.
#include "check.h"
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stddef.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>

#define PAGE 4096ul

static void *volatile bad_address = (void *)8;

static int make(int flags) { return (int)syscall(SYS_userfaultfd, flags); }

static int ready(int flags, unsigned long long features) {
    int fd = make(flags);
    struct uffdio_api api = {.api = UFFD_API, .features = features};
    if (fd < 0 || ioctl(fd, UFFDIO_API, &api) != 0) {
        show("a descriptor", "none");
        exit(97);
    }
    return fd;
}

// Fresh memory: nobody has touched it.
static char *memory(int pages) {
    char *m = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return m;
}

static int reg(int fd, void *at, unsigned long len, unsigned long long mode) {
    struct uffdio_register r = {.range = {(unsigned long)at, len}, .mode = mode};
    return ioctl(fd, UFFDIO_REGISTER, &r);
}

static int unregister(int fd, void *at, unsigned long len) {
    struct uffdio_range r = {(unsigned long)at, len};
    return ioctl(fd, UFFDIO_UNREGISTER, &r);
}

static int wake(int fd, void *at, unsigned long len) {
    struct uffdio_range r = {(unsigned long)at, len};
    return ioctl(fd, UFFDIO_WAKE, &r);
}

static long long told;

static int copy(int fd, void *to, const void *from, unsigned long len, unsigned long long mode) {
    struct uffdio_copy c = {(unsigned long)to, (unsigned long)from, len, mode, 77};
    int r = ioctl(fd, UFFDIO_COPY, &c);
    told = c.copy;
    return r;
}

static int zero(int fd, void *at, unsigned long len, unsigned long long mode) {
    struct uffdio_zeropage z = {{(unsigned long)at, len}, mode, 77};
    int r = ioctl(fd, UFFDIO_ZEROPAGE, &z);
    told = z.zeropage;
    return r;
}

static const char *told_text(void) {
    static char text[32];
    if (told < 0)
        snprintf(text, sizeof text, "%s", strerrorname_np(-told));
    else
        snprintf(text, sizeof text, "%lld", told);
    return text;
}

static void making(void) {
    static const int flags[] = {0, O_CLOEXEC, O_NONBLOCK, 1, O_CLOEXEC | O_NONBLOCK | 1, 2, O_APPEND, -1};
    for (int i = 0; i < 8; i++) {
        int fd = make(flags[i]);
        works_of(CASE("userfaultfd %x", flags[i]), fd);
        if (fd >= 0) {
            show(CASE("close on exec %d", i), "%d", fcntl(fd, F_GETFD));
            show(CASE("flags %d", i), "%x", fcntl(fd, F_GETFL) & ~O_LARGEFILE);
            close(fd);
        }
    }
    int fd = make(O_NONBLOCK);
    char *m = memory(4), buffer[64];
    RESULT("read before UFFDIO_API", read(fd, buffer, 64));
    struct pollfd p = {fd, POLLIN, 0};
    RESULT("poll before it", poll(&p, 1, 0));
    show("events", "%x", p.revents);
    RESULT("register before it", reg(fd, m, PAGE, UFFDIO_REGISTER_MODE_MISSING));
    RESULT("wake before it", wake(fd, m, PAGE));
    RESULT("copy before it", copy(fd, m, buffer, PAGE, 0));
    static const unsigned long long bad_features[] = {1ull << 40, 1ull << 63};
    struct uffdio_api api;
    for (int i = 0; i < 2; i++) {
        api = (struct uffdio_api){.api = UFFD_API, .features = bad_features[i], .ioctls = 5};
        RESULT(CASE("unknown features %d", i), ioctl(fd, UFFDIO_API, &api));
        show("what it says", "%llx %llx %llx", api.api, api.features, api.ioctls);
    }
    api = (struct uffdio_api){.api = 0xab};
    RESULT("another API", ioctl(fd, UFFDIO_API, &api));
    show("what it says", "%llx %llx %llx", api.api, api.features, api.ioctls);
    RESULT("a bad address", ioctl(fd, UFFDIO_API, bad_address));
    api = (struct uffdio_api){.api = UFFD_API};
    RESULT("UFFDIO_API", ioctl(fd, UFFDIO_API, &api));
    show("API", "%llx", api.api);
    CHECK("features", (api.features & (UFFD_FEATURE_SIGBUS | UFFD_FEATURE_THREAD_ID)) == (UFFD_FEATURE_SIGBUS | UFFD_FEATURE_THREAD_ID));
    show("ioctls", "%llx", api.ioctls);
    api = (struct uffdio_api){.api = UFFD_API};
    RESULT("UFFDIO_API again", ioctl(fd, UFFDIO_API, &api));
    RESULT("read of nothing", read(fd, buffer, 64));
    RESULT("read of too little", read(fd, buffer, 31));
    RESULT("write", write(fd, buffer, 8));
    RESULT("lseek", lseek(fd, 5, SEEK_SET));
    p.revents = 0;
    RESULT("poll", poll(&p, 1, 0));
    fcntl(fd, F_SETFL, 0);
    RESULT("poll without O_NONBLOCK", poll(&p, 1, 0));
    show("events", "%x", p.revents);
    fcntl(fd, F_SETFL, O_NONBLOCK);
    RESULT("an unknown request", ioctl(fd, _IO(UFFDIO, 0x30), 0));
    RESULT("TCGETS", ioctl(fd, 0x5401, buffer));
    close(fd);
    munmap(m, 4 * PAGE);
}

static void registering(void) {
    int fd = ready(O_NONBLOCK, 0);
    char *m = memory(16);
    static const struct {
        const char *name;
        long start, len;
        int mode;
    } cases[] = {{"no mode", 0, PAGE, 0},          {"an unknown mode", 0, PAGE, 8},  {"all modes", 0, PAGE, 15},       {"no length", 0, 0, 1},
                 {"an odd start", 8, PAGE, 1},     {"an odd length", 0, 100, 1},     {"one page", PAGE, PAGE, 1},      {"it again", PAGE, PAGE, 1},
                 {"all of it", 0, 16 * PAGE, 1},   {"it wraps", 0, -PAGE, 1},        {"address 0", -1, PAGE, 1}};
    for (unsigned i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *at = cases[i].start < 0 ? NULL : m + cases[i].start;
        RESULT(CASE("register: %s", cases[i].name), reg(fd, at, cases[i].len, cases[i].mode));
        if (cases[i].mode == 1)
            RESULT(CASE("unregister: %s", cases[i].name), unregister(fd, at, cases[i].len));
    }
    struct uffdio_register r = {.range = {(unsigned long)m, PAGE}, .mode = 1};
    RESULT("register", ioctl(fd, UFFDIO_REGISTER, &r));
    show("it can wake, copy and zero", "%llx", r.ioctls & (1 << _UFFDIO_WAKE | 1 << _UFFDIO_COPY | 1 << _UFFDIO_ZEROPAGE));
    RESULT("unregister", unregister(fd, m, PAGE));
    RESULT("register at a bad address", ioctl(fd, UFFDIO_REGISTER, bad_address));
    munmap(m + 4 * PAGE, PAGE);
    RESULT("register over a gap", reg(fd, m, 8 * PAGE, 1));
    RESULT("register the gap", reg(fd, m + 4 * PAGE, PAGE, 1));
    RESULT("unregister the gap", unregister(fd, m + 4 * PAGE, PAGE));
    RESULT("unregister", unregister(fd, m, 8 * PAGE));
    RESULT("unregister what is not registered", unregister(fd, m, PAGE));
    scratch();
    int file = open("file", O_CREAT | O_RDWR, 0600);
    if (ftruncate(file, PAGE))
        exit(96);
    char *f = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, file, 0);
    RESULT("register a file", reg(fd, f, PAGE, 1));
    RESULT("unregister a file", unregister(fd, f, PAGE));
    int other = ready(0, 0);
    RESULT("register", reg(fd, m, 2 * PAGE, 1));
    RESULT("register with another", reg(other, m, PAGE, 1));
    RESULT("after a close", close(fd));
    RESULT("register with the other", reg(other, m, PAGE, 1));
    munmap(m, 16 * PAGE);
    RESULT("register nothing mapped", reg(other, m, PAGE, 1));
    close(other);
    close(file);
}

static void filling(void) {
    int fd = ready(O_NONBLOCK, 0);
    char *m = memory(16), *from = memory(16);
    for (int i = 0; i < 16; i++)
        memset(from + i * PAGE, 'a' + i, PAGE);
    RESULT("copy to what is not registered", copy(fd, m, from, PAGE, 0));
    show("told", "%s", told_text());
    RESULT("zero what is not registered", zero(fd, m, PAGE, 0));
    reg(fd, m, 12 * PAGE, 1);
    RESULT("copy", copy(fd, m, from, PAGE, 0));
    show("told", "%s", told_text());
    CHECK("what was copied", m[0] == 'a' && m[PAGE - 1] == 'a');
    RESULT("copy again", copy(fd, m, from, PAGE, 0));
    show("told", "%s", told_text());
    RESULT("zero", zero(fd, m + PAGE, PAGE, 0));
    show("told", "%s", told_text());
    CHECK("zeroes", m[PAGE] == 0 && m[2 * PAGE - 1] == 0);
    RESULT("zero again", zero(fd, m + PAGE, PAGE, 0));
    show("told", "%s", told_text());
    RESULT("copy three pages", copy(fd, m + 2 * PAGE, from, 3 * PAGE, UFFDIO_COPY_MODE_DONTWAKE));
    show("told", "%s", told_text());
    CHECK("they are there", m[2 * PAGE] == 'a' && m[3 * PAGE] == 'b' && m[4 * PAGE] == 'c');
    zero(fd, m + 7 * PAGE, PAGE, 0);
    RESULT("copy up to what is there", copy(fd, m + 5 * PAGE, from, 4 * PAGE, 0));
    show("told", "%s", told_text());
    RESULT("zero up to what is there", zero(fd, m + 6 * PAGE, 2 * PAGE, 0));
    show("told", "%s", told_text());
    RESULT("copy beyond what is registered", copy(fd, m + 11 * PAGE, from, 2 * PAGE, 0));
    show("told", "%s", told_text());
    RESULT("copy from an odd address", copy(fd, m + 8 * PAGE, from + 5, PAGE, 0));
    CHECK("what is there", m[8 * PAGE] == 'a' && m[9 * PAGE - 5] == 'b');
    RESULT("copy from a bad address", copy(fd, m + 9 * PAGE, bad_address, PAGE, 0));
    show("told", "%s", told_text());
    RESULT("copy to an odd address", copy(fd, m + 5, from, PAGE, 0));
    show("told", "%s", told_text());
    RESULT("copy an odd length", copy(fd, m, from, 100, 0));
    RESULT("copy nothing", copy(fd, m, from, 0, 0));
    RESULT("copy in an unknown mode", copy(fd, m + 10 * PAGE, from, PAGE, 16));
    RESULT("zero in an unknown mode", zero(fd, m + 10 * PAGE, PAGE, 2));
    RESULT("zero an odd address", zero(fd, m + 5, PAGE, 0));
    RESULT("wake nobody", wake(fd, m, PAGE));
    RESULT("wake at an odd address", wake(fd, m + 1, PAGE));
    RESULT("wake nothing", wake(fd, m, 0));
    RESULT("copy at a bad address", ioctl(fd, UFFDIO_COPY, bad_address));
    RESULT("zero at a bad address", ioctl(fd, UFFDIO_ZEROPAGE, bad_address));
    // Pages that were written before are not missing.
    char *w = memory(4);
    memset(w + PAGE, 'w', PAGE);
    reg(fd, w, 4 * PAGE, 1);
    RESULT("copy over what was written", copy(fd, w + PAGE, from, PAGE, 0));
    CHECK("it is still there", w[PAGE] == 'w');
    madvise(w, 4 * PAGE, MADV_DONTNEED);
    RESULT("copy over what was given up", copy(fd, w + PAGE, from, PAGE, 0));
    CHECK("it is new", w[PAGE] == 'a');
    mprotect(w, 4 * PAGE, PROT_READ);
    RESULT("copy to a constant page", copy(fd, w + 2 * PAGE, from, PAGE, 0));
    CHECK("it is there", w[2 * PAGE] == 'a');
    munmap(w, 4 * PAGE);
    RESULT("copy to what is gone", copy(fd, w, from, PAGE, 0));
    show("told", "%s", told_text());
    close(fd);
    CHECK("after a close missing pages are zeroes", m[11 * PAGE] == 0);
    munmap(m, 16 * PAGE);
    munmap(from, 16 * PAGE);
}

static char *area, *source;
static int uffd, with_thread, exact;
static volatile int stop;

// Answers faults with letters by page until it is stopped; counts them.
static int faults, writes, odd;
static pid_t fault_thread;

static void *server(void *arg) {
    (void)arg;
    while (!stop) {
        struct pollfd p = {uffd, POLLIN, 0};
        if (poll(&p, 1, 20) <= 0)
            continue;
        struct uffd_msg m[4];
        long n = read(uffd, m, sizeof m);
        for (long i = 0; i < n / (long)sizeof *m; i++) {
            unsigned long at = m[i].arg.pagefault.address, page = (at - (unsigned long)area) / PAGE;
            odd += m[i].event != UFFD_EVENT_PAGEFAULT || (!exact && at % PAGE) || page > 64;
            faults++;
            writes += (m[i].arg.pagefault.flags & UFFD_PAGEFAULT_FLAG_WRITE) != 0;
            if (with_thread)
                fault_thread = m[i].arg.pagefault.feat.ptid;
            char *to = (char *)(at & -PAGE);
            if (page % 3 == 2)
                zero(uffd, to, PAGE, 0);
            else {
                memset(source, 'A' + page, PAGE);
                copy(uffd, to, source, PAGE, 0);
            }
        }
    }
    return NULL;
}

static pthread_t serve(void) {
    pthread_t t;
    stop = faults = writes = odd = 0;
    pthread_create(&t, NULL, server, NULL);
    return t;
}

static void served(const char *name, pthread_t t) {
    stop = 1;
    pthread_join(t, NULL);
    show(name, "%d faults, %d to write, %d odd", faults, writes, odd);
}

static void serving(void) {
    source = memory(1);
    source[0] = 1;
    area = memory(64);
    uffd = ready(O_NONBLOCK | O_CLOEXEC, 0);
    reg(uffd, area, 64 * PAGE, 1);
    pthread_t t = serve();
    show("a read", "%d", area[0]);
    show("another of the page", "%d", area[PAGE - 1]);
    area[PAGE] = 'w';
    show("a write", "%c %c", area[PAGE], area[PAGE + 1]);
    show("a page of zeroes", "%d", area[2 * PAGE]);
    int sum = 0;
    for (int i = 3; i < 20; i++)
        sum += area[i * PAGE + 77];
    show("many", "%d", sum);
    served("served", t);

    t = serve();
    int p[2];
    if (pipe(p) != 0)
        return;
    char text[16] = "hello";
    if (write(p[1], text, 6) != 6)
        return;
    RESULT("read into a missing page", read(p[0], area + 20 * PAGE, 6));
    show("text", "%s %c", area + 20 * PAGE, area[20 * PAGE + 10] ? area[20 * PAGE + 10] : '0');
    RESULT("write from a missing page", write(p[1], area + 21 * PAGE, 3));
    RESULT("read it", read(p[0], text, 16));
    show("text", "%.3s", text);
    struct stat st;
    RESULT("stat into a missing page", fstat(p[0], (void *)(area + 22 * PAGE)));
    fstat(p[0], &st);
    CHECK("what it says", memcmp(&st.st_mode, area + 22 * PAGE + offsetof(struct stat, st_mode), sizeof st.st_mode) == 0);
    RESULT("a path in a missing page", open(area + 23 * PAGE, O_RDONLY));
    struct iovec v[2] = {{area + 24 * PAGE, 2}, {area + 25 * PAGE, 2}};
    RESULT("writev from two", writev(p[1], v, 2) > 0);
    RESULT("getrandom", syscall(SYS_getrandom, area + 26 * PAGE, 8, 0));
    RESULT("clock_gettime", syscall(SYS_clock_gettime, 0, area + 27 * PAGE));
    CHECK("uname", syscall(SYS_uname, area + 28 * PAGE) == 0 && strcmp(area + 28 * PAGE, "Linux") == 0);
    stop = 1;
    pthread_join(t, NULL);
    CHECK("all were served", faults >= 8 && !odd);
    close(p[0]), close(p[1]);

    // Given up, it is missing again.
    t = serve();
    madvise(area, 64 * PAGE, MADV_DONTNEED);
    show("after MADV_DONTNEED", "%d %d", area[0], area[PAGE]);
    served("served", t);
    RESULT("unregister", unregister(uffd, area, 64 * PAGE));
    show("missing pages are zeroes now", "%d", area[40 * PAGE]);
    close(uffd);

    with_thread = 1;
    uffd = ready(O_NONBLOCK, UFFD_FEATURE_THREAD_ID);
    madvise(area, 64 * PAGE, MADV_DONTNEED);
    reg(uffd, area, 64 * PAGE, 1);
    t = serve();
    show("with the thread", "%d", area[PAGE]);
    CHECK("the thread", fault_thread == syscall(SYS_gettid));
    served("served", t);
    with_thread = 0;
    close(uffd);
    // A child has the memory without the registration.
    uffd = ready(O_NONBLOCK, 0);
    reg(uffd, area, 64 * PAGE, 1);
    fflush(stdout);
    pid_t pid = fork();
    if (!pid) {
        alarm(5);
        _exit(area[1 * PAGE] * 2 + (area[50 * PAGE] == 0));
    }
    int status;
    waitpid(pid, &status, 0);
    show("a child", "%d signal %d", WEXITSTATUS(status), WTERMSIG(status));
    // Nor has what moved.
    char *moved = mremap(area + 60 * PAGE, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, memory(1));
    CHECK("mremap", moved != MAP_FAILED);
    show("what moved", "%d", moved[0]);
    RESULT("copy there", copy(uffd, moved, source, PAGE, 0));
    close(uffd);
}

static void *toucher(void *arg) {
    volatile char *at = arg;
    return (void *)(long)(*at + 1);
}

static void *closer(void *arg) {
    usleep(50000);
    close(*(int *)arg);
    return NULL;
}

static void blocking(void) {
    pthread_t t;
    void *result;
    struct uffd_msg m;
    char *a = memory(8), b[PAGE];
    memset(b, 'b', sizeof b);
    int fd = ready(0, 0);
    reg(fd, a, 8 * PAGE, 1);
    pthread_create(&t, NULL, toucher, a + 5);
    RESULT("a read waits", read(fd, &m, sizeof m));
    show("message", "%x flags %llx at %ld", m.event, m.arg.pagefault.flags, (long)m.arg.pagefault.address - (long)a);
    RESULT("copy without waking", copy(fd, a, b, PAGE, UFFDIO_COPY_MODE_DONTWAKE));
    usleep(30000);
    CHECK("the thread waits", pthread_tryjoin_np(t, &result) == EBUSY);
    RESULT("wake", wake(fd, a, PAGE));
    pthread_join(t, &result);
    show("the thread", "%ld", (long)result);
    // Woken without a page it is told of again.
    pthread_create(&t, NULL, toucher, a + PAGE);
    RESULT("read", read(fd, &m, sizeof m));
    RESULT("wake", wake(fd, a + PAGE, PAGE));
    RESULT("read again", read(fd, &m, sizeof m));
    RESULT("wake another page", wake(fd, a + 2 * PAGE, PAGE));
    fcntl(fd, F_SETFL, O_NONBLOCK);
    RESULT("nothing new", read(fd, &m, sizeof m));
    RESULT("zero", zero(fd, a + PAGE, PAGE, 0));
    pthread_join(t, &result);
    show("the thread", "%ld", (long)result);
    // Two threads at one page.
    pthread_t u;
    pthread_create(&t, NULL, toucher, a + 2 * PAGE);
    pthread_create(&u, NULL, toucher, a + 2 * PAGE);
    int n = 0;
    for (int i = 0; i < 200 && n < 2; i++) {
        if (read(fd, &m, sizeof m) > 0)
            n++;
        usleep(5000);
    }
    show("two messages", "%d", n);
    copy(fd, a + 2 * PAGE, b, PAGE, 0);
    pthread_join(t, &result);
    pthread_join(u, &result);
    show("both go on", "%ld", (long)result);
    // epoll, and unregistering wakes.
    int ep = epoll_create1(0);
    struct epoll_event e = {.events = EPOLLIN};
    epoll_ctl(ep, EPOLL_CTL_ADD, fd, &e);
    RESULT("nothing to read", epoll_wait(ep, &e, 1, 0));
    pthread_create(&t, NULL, toucher, a + 3 * PAGE);
    RESULT("epoll_wait", epoll_wait(ep, &e, 1, 2000));
    show("events", "%x", e.events);
    RESULT("a bad address", read(fd, bad_address, sizeof m));
    RESULT("unregister", unregister(fd, a, 8 * PAGE));
    pthread_join(t, &result);
    show("the thread goes on", "%ld", (long)result);
    reg(fd, a, 8 * PAGE, 1);
    pthread_create(&t, NULL, toucher, a + 4 * PAGE);
    epoll_wait(ep, &e, 1, 2000);
    pthread_create(&u, NULL, closer, &fd);
    pthread_join(t, &result);
    pthread_join(u, NULL);
    show("a close wakes too", "%ld", (long)result);
    close(ep);
}

static sigjmp_buf back;
static volatile sig_atomic_t caught;

static void jump(int n, siginfo_t *i, void *c) {
    (void)c;
    caught = n * 100 + i->si_code;
    siglongjmp(back, 1);
}

static void note(int n) { caught = n; }

static pthread_t main_thread;

static void *later(void *arg) {
    int fd = *(int *)arg;
    struct uffd_msg m;
    usleep(50000);
    pthread_kill(main_thread, SIGUSR1);
    usleep(50000);
    int n = 0;
    while (read(fd, &m, sizeof m) > 0)
        n++;
    zero(fd, (void *)(m.arg.pagefault.address & -PAGE), PAGE, 0);
    return (void *)(long)n;
}

static void signals(void) {
    struct sigaction sa = {.sa_sigaction = jump, .sa_flags = SA_SIGINFO};
    sigaction(SIGBUS, &sa, NULL);
    int fd = ready(O_NONBLOCK, UFFD_FEATURE_SIGBUS);
    char *a = memory(4), c = 'x';
    reg(fd, a, 4 * PAGE, 1);
    if (!sigsetjmp(back, 1))
        show("a missing page", "%d", a[0]);
    show("a signal instead", "%d", caught);
    struct uffd_msg m;
    RESULT("and nothing to read", read(fd, &m, sizeof m));
    int p[2];
    if (pipe(p) != 0)
        return;
    RESULT("a system call", write(p[1], a, 1));
    zero(fd, a, PAGE, 0);
    RESULT("filled", write(p[1], a, 1));
    RESULT("read into one", read(p[0], a + PAGE, 1));
    RESULT("the byte is still there", read(p[0], &c, 1));
    close(fd);
    fd = ready(O_NONBLOCK | 1, 0);
    reg(fd, a, 4 * PAGE, 1);
    RESULT("user mode only: a system call", write(p[1], a + 2 * PAGE, 1));
    RESULT("nothing to read", read(fd, &m, sizeof m));
    close(fd);
    signal(SIGBUS, SIG_DFL);

    // A signal takes a waiting thread away, and it comes back.
    fd = ready(O_NONBLOCK, 0);
    a = memory(4);
    reg(fd, a, 4 * PAGE, 1);
    sa = (struct sigaction){.sa_handler = note};
    sigaction(SIGUSR1, &sa, NULL);
    pthread_t t;
    main_thread = pthread_self();
    caught = 0;
    pthread_create(&t, NULL, later, &fd);
    int value = *(volatile char *)(a + PAGE);
    show("after a signal", "%d, page %d", caught, value);
    void *n;
    pthread_join(t, &n);
    show("messages", "%ld", (long)n);
    close(fd);
    close(p[0]), close(p[1]);
}

int main(void) {
    making();
    registering();
    filling();
    serving();
    blocking();
    signals();
    return 0;
}

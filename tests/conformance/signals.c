// Signals: dispositions, masks, what a handler is told, queues, alternate stacks, restarts of interrupted calls, signalfd, sigtimedwait.
#include "check.h"
#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <setjmp.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/select.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <ucontext.h>

static volatile sig_atomic_t got[66], order[256], orders;
static siginfo_t last;
static sigset_t mask_then;
static void note(int signal, siginfo_t *info, void *context) {
    got[signal]++;
    order[orders++ & 255] = signal;
    last = *info;
    pthread_sigmask(SIG_SETMASK, NULL, &mask_then);
}
static void catch(int signal, int flags) {
    struct sigaction a = {.sa_sigaction = note, .sa_flags = SA_SIGINFO | flags};
    sigemptyset(&a.sa_mask);
    sigaction(signal, &a, NULL);
}
static void forget(void) {
    memset((void *)got, 0, sizeof got);
    orders = 0;
    memset(&last, 0, sizeof last);
}
static unsigned long bits(const sigset_t *s) { return *(const unsigned long *)s; }
static const char *told(void) {
    static char text[4][128];
    static int next;
    sprintf(text[next % 4], "signo %d code %d %s value %d", last.si_signo, last.si_code, last.si_pid == getpid() ? "self" : last.si_pid ? "another" : "nobody", last.si_code == SI_QUEUE ? last.si_value.sival_int : 0);
    return text[next++ % 4];
}

static void dispositions(void) {
    struct sigaction a, old;
    for (int s = 1; s <= 64; s++) {
        if (s == 32 || s == 33)
            continue;
        a = (struct sigaction){.sa_handler = SIG_IGN, .sa_flags = SA_RESTART | SA_NOCLDSTOP};
        RESULT(CASE("ignore %d", s), sigaction(s, &a, NULL));
        memset(&old, 0, sizeof old);
        RESULT(CASE("ask for %d", s), sigaction(s, NULL, &old));
        show(CASE("disposition of %d", s), "%s flags %x", old.sa_handler == SIG_IGN ? "ignored" : old.sa_handler == SIG_DFL ? "default" : "handler", old.sa_flags & ~0x04000000);
        signal(s, SIG_DFL);
    }
    static const int bad[] = {0, -1, 65, 1000};
    for (int i = 0; i < 4; i++) {
        char kernel[32] = {0};
        RESULT(CASE("rt_sigaction of %d", bad[i]), syscall(SYS_rt_sigaction, bad[i], kernel, NULL, 8));
        RESULT(CASE("kill with %d", bad[i]), bad[i] ? kill(getpid(), bad[i]) : 0);
        RESULT(CASE("tgkill with %d", bad[i]), bad[i] ? syscall(SYS_tgkill, getpid(), getpid(), bad[i]) : 0);
    }
    char kernel[32] = {0};
    RESULT("rt_sigaction with another size", syscall(SYS_rt_sigaction, SIGUSR1, kernel, NULL, 4));
    RESULT("rt_sigaction from nowhere", syscall(SYS_rt_sigaction, SIGUSR1, 8L, NULL, 8));
    RESULT("rt_sigaction to nowhere", syscall(SYS_rt_sigaction, SIGUSR1, NULL, 8L, 8));
    RESULT("rt_sigprocmask with another size", syscall(SYS_rt_sigprocmask, SIG_BLOCK, kernel, NULL, 4));
    RESULT("rt_sigprocmask in a strange way", syscall(SYS_rt_sigprocmask, 7, kernel, NULL, 8));
    RESULT("rt_sigprocmask from nowhere", syscall(SYS_rt_sigprocmask, SIG_BLOCK, 8L, NULL, 8));
    RESULT("rt_sigpending with a large size", syscall(SYS_rt_sigpending, kernel, 16));
    RESULT("kill of nobody", kill(4000000, 0));
    RESULT("tgkill of nobody", syscall(SYS_tgkill, 4000000, 4000000, 0));
    RESULT("tgkill of another's thread", syscall(SYS_tgkill, getpid(), getppid() + 3000000, 0));
    RESULT("tgkill of thread 0", syscall(SYS_tgkill, getpid(), 0, 0));
    RESULT("tkill of thread 0", syscall(SYS_tkill, 0, 0));
    RESULT("kill 0 with 0", kill(0, 0));
}

static void handlers(void) {
    static const struct { const char *name; int flags; } kinds[] = {{"plain", 0}, {"SA_NODEFER", SA_NODEFER}, {"SA_RESETHAND", SA_RESETHAND}, {"SA_RESETHAND SA_NODEFER", SA_RESETHAND | SA_NODEFER}};
    for (int k = 0; k < 4; k++) {
        struct sigaction a = {.sa_sigaction = note, .sa_flags = SA_SIGINFO | kinds[k].flags}, now;
        sigemptyset(&a.sa_mask);
        sigaddset(&a.sa_mask, SIGUSR2);
        sigaddset(&a.sa_mask, SIGKILL);
        sigaction(SIGUSR1, &a, NULL);
        forget();
        raise(SIGUSR1);
        show(CASE("handler, %s", kinds[k].name), "%d times", got[SIGUSR1]);
        show(CASE("mask in it, %s", kinds[k].name), "%lx", bits(&mask_then));
        sigaction(SIGUSR1, NULL, &now);
        show(CASE("disposition after it, %s", kinds[k].name), "%s", now.sa_handler == SIG_DFL ? "default" : "handler");
        sigset_t m;
        sigprocmask(SIG_SETMASK, NULL, &m);
        show(CASE("mask after it, %s", kinds[k].name), "%lx", bits(&m));
        signal(SIGUSR1, SIG_DFL);
    }
    catch(SIGUSR1, 0);
    kill(getpid(), SIGUSR1);
    show("told by kill", "%s", told());
    syscall(SYS_tgkill, getpid(), getpid(), SIGUSR1);
    show("told by tgkill", "%s", told());
    sigqueue(getpid(), SIGUSR1, (union sigval){.sival_int = 77});
    show("told by sigqueue", "%s", told());
    siginfo_t i = {.si_signo = SIGUSR1, .si_code = -60, .si_pid = 5};
    RESULT("rt_sigqueueinfo", syscall(SYS_rt_sigqueueinfo, getpid(), SIGUSR1, &i));
    show("its code", "%d %d", last.si_code, last.si_pid);
    RESULT("rt_tgsigqueueinfo", syscall(SYS_rt_tgsigqueueinfo, getpid(), getpid(), SIGUSR1, &i));
    RESULT("rt_sigqueueinfo of nobody", syscall(SYS_rt_sigqueueinfo, 4000000, SIGUSR1, &i));
    i.si_code = SI_USER;
    RESULT("rt_sigqueueinfo that lies to itself", syscall(SYS_rt_sigqueueinfo, getpid(), SIGUSR1, &i));
    RESULT("rt_sigqueueinfo that lies", syscall(SYS_rt_sigqueueinfo, getppid() + 3000000, SIGUSR1, &i));
}

static void queues(void) {
    sigset_t all, pending, one;
    sigfillset(&all);
    for (int s = 1; s <= 64; s++)
        if (s != SIGKILL && s != SIGSTOP && s != 32 && s != 33)
            catch(s, 0);
    sigprocmask(SIG_BLOCK, &all, NULL);
    sigset_t m;
    sigprocmask(SIG_SETMASK, NULL, &m);
    show("the full mask", "%lx", bits(&m));
    forget();
    static const int sent[] = {40, SIGUSR2, 35, SIGUSR2, 40, SIGTERM, SIGHUP, SIGSEGV, 64, 35, SIGCHLD, SIGINT};
    for (size_t k = 0; k < sizeof sent / sizeof *sent; k++)
        sigqueue(getpid(), sent[k], (union sigval){.sival_int = k});
    RESULT("sigpending", sigpending(&pending));
    show("pending", "%lx", bits(&pending));
    sigemptyset(&one);
    sigaddset(&one, SIGTERM);
    siginfo_t info;
    struct timespec zero = {0, 0};
    RESULT("sigtimedwait", sigtimedwait(&one, &info, &zero));
    show("its value", "%d", info.si_value.sival_int);
    RESULT("once more", sigtimedwait(&one, &info, &zero));
    RESULT("for a short time", sigtimedwait(&one, &info, &(struct timespec){0, 10000000}));
    RESULT("for a strange time", sigtimedwait(&one, &info, &(struct timespec){0, 1000000000}));
    sigprocmask(SIG_SETMASK, &(sigset_t){0}, NULL);
    int n = orders;
    show("delivered", "%d", n);
    for (int k = 0; k < n; k++)
        show(CASE("delivery %d", k), "%d", order[n - 1 - k]);
    // Dispositions that throw away.
    sigprocmask(SIG_BLOCK, &all, NULL);
    raise(SIGUSR1);
    raise(SIGCHLD);
    signal(SIGUSR1, SIG_IGN);
    signal(SIGCHLD, SIG_DFL);
    sigpending(&pending);
    show("pending after dispositions that ignore", "%lx", bits(&pending));
    raise(SIGUSR1);
    sigpending(&pending);
    show("an ignored one that is blocked", "%lx", bits(&pending));
    signal(SIGUSR1, SIG_DFL);
    raise(SIGCONT);
    raise(SIGTSTP);
    sigpending(&pending);
    show("SIGTSTP takes SIGCONT away", "%lx", bits(&pending));
    raise(SIGCONT);
    sigpending(&pending);
    show("SIGCONT takes SIGTSTP away", "%lx", bits(&pending));
    signal(SIGCONT, SIG_DFL);
    signal(SIGUSR1, SIG_IGN);
    for (int s = 1; s <= 64; s++)
        signal(s, SIG_DFL);
    sigprocmask(SIG_SETMASK, &(sigset_t){0}, NULL);
    // Fork and exec.
    sigprocmask(SIG_BLOCK, &all, NULL);
    raise(SIGUSR1);
    pid_t child = fork();
    if (child == 0) {
        sigpending(&pending);
        sigprocmask(SIG_SETMASK, NULL, &m);
        _exit(bits(&pending) != 0 || bits(&m) != 0xfffffffe7ffbfeff);
    }
    int status;
    waitpid(child, &status, 0);
    show("a child has the mask and no pending signals", "%x", status);
    signal(SIGUSR1, SIG_IGN);
    signal(SIGUSR1, SIG_DFL);
    sigprocmask(SIG_SETMASK, &(sigset_t){0}, NULL);
}

static char stack_memory[65536] __attribute__((aligned(4096)));
static volatile int on_stack, flags_in;
static void where(int signal, siginfo_t *i, void *c) {
    char here;
    stack_t s;
    sigaltstack(NULL, &s);
    on_stack = &here > stack_memory && &here < stack_memory + sizeof stack_memory;
    flags_in = s.ss_flags;
}

static void stacks(void) {
    stack_t s, old;
    RESULT("sigaltstack, none", sigaltstack(NULL, &old));
    show("its flags", "%x", old.ss_flags);
    s = (stack_t){.ss_sp = stack_memory, .ss_size = 100};
    RESULT("too small", sigaltstack(&s, NULL));
    s = (stack_t){.ss_sp = stack_memory, .ss_size = sizeof stack_memory, .ss_flags = 77};
    RESULT("strange flags", sigaltstack(&s, NULL));
    RESULT("from nowhere", sigaltstack((stack_t *)8, NULL));
    static const unsigned kinds[] = {0, SS_ONSTACK, 1u << 31};
    for (int k = 0; k < 3; k++) {
        s = (stack_t){.ss_sp = stack_memory, .ss_size = sizeof stack_memory, .ss_flags = kinds[k]};
        RESULT(CASE("set, flags %x", kinds[k]), sigaltstack(&s, NULL));
        sigaltstack(NULL, &old);
        show(CASE("flags then, %x", kinds[k]), "%x", old.ss_flags);
        for (int use = 0; use < 2; use++) {
            struct sigaction a = {.sa_sigaction = where, .sa_flags = SA_SIGINFO | (use ? SA_ONSTACK : 0)};
            sigaction(SIGUSR1, &a, NULL);
            raise(SIGUSR1);
            show(CASE("handler, flags %x, SA_ONSTACK %d", kinds[k], use), "%d %x", on_stack, flags_in);
        }
        s.ss_flags = SS_DISABLE;
        RESULT(CASE("disable, %x", kinds[k]), sigaltstack(&s, NULL));
    }
    signal(SIGUSR1, SIG_DFL);
}

static sigjmp_buf back;
static volatile int fault_code;
static void *volatile fault_address;
static volatile long fault_trap;
static void faults(int signal, siginfo_t *i, void *c) {
    fault_code = i->si_code;
    fault_address = i->si_addr;
    fault_trap = ((ucontext_t *)c)->uc_mcontext.gregs[REG_TRAPNO];
    siglongjmp(back, signal);
}

static void exceptions(void) {
    static const int signals[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP};
    for (int k = 0; k < 5; k++) {
        struct sigaction a = {.sa_sigaction = faults, .sa_flags = SA_SIGINFO};
        sigaction(signals[k], &a, NULL);
    }
    char *page = mmap(NULL, 8192, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    munmap(page + 4096, 4096);
    int s;
#define FAULT(name, address, code)                                                                           \
    do {                                                                                                      \
        s = sigsetjmp(back, 1);                                                                               \
        if (s == 0) {                                                                                         \
            code;                                                                                             \
        }                                                                                                     \
        show(name, "signal %d code %d trap %ld address %s", s, fault_code, fault_trap, !address || fault_address == (void *)(address) ? "right" : "wrong"); \
    } while (0)
    FAULT("read of nothing", 0, *(volatile char *)8);
    FAULT("write to a read-only page", page, *(volatile char *)page = 1);
    FAULT("read beyond a mapping", page + 4096, *(volatile char *)(page + 4096));
    FAULT("a non-canonical address", 0, *(volatile char *)0x8000000000000000);
    FAULT("jump to data", page, ((void (*)(void))page)());
    volatile int zero = 0, one = 1;
    FAULT("division by zero", 0, one = one / zero);
    FAULT("division that overflows", 0, one = INT_MIN / (zero - 1));
    FAULT("ud2", 0, __asm__ volatile("ud2"));
    FAULT("int3", 0, __asm__ volatile("int3"));
    FAULT("hlt", 0, __asm__ volatile("hlt"));
    FAULT("cli", 0, __asm__ volatile("cli"));
    int fd = memfd_create("short", 0);
    if (ftruncate(fd, 4096) == 0) {
        char *file = mmap(NULL, 8192, PROT_READ, MAP_SHARED, fd, 0);
        FAULT("beyond the end of a file", file + 4096, *(volatile char *)(file + 4096));
        munmap(file, 8192);
    }
    close(fd);
    munmap(page, 4096);
    for (int k = 0; k < 5; k++)
        signal(signals[k], SIG_DFL);
    sigprocmask(SIG_SETMASK, &(sigset_t){0}, NULL);
    int status;
    static const struct { const char *name; int what; } ends[] = {{"blocked", 0}, {"ignored", 1}};
    for (int k = 0; k < 2; k++) {
        pid_t child = fork();
        if (child == 0) {
            sigset_t all;
            sigfillset(&all);
            if (ends[k].what)
                signal(SIGSEGV, SIG_IGN);
            else
                sigprocmask(SIG_BLOCK, &all, NULL);
            *(volatile char *)8 = 1;
            _exit(0);
        }
        waitpid(child, &status, 0);
        show(CASE("a fault while SIGSEGV is %s", ends[k].name), "%d", WTERMSIG(status));
    }
    CHECK("code and stack selectors", ({ ucontext_t u; getcontext(&u) == 0; }));
}

static pthread_t main_thread;
static volatile int stop_sending;
static void *sender(void *after) {
    usleep(30000);
    for (int k = 0; k < 3 && !stop_sending; k++) {
        pthread_kill(main_thread, SIGUSR1);
        usleep(10000);
    }
    // And what the call waits for, so that a restarted one ends.
    usleep(30000);
    ((void (*)(void))after)();
    return NULL;
}
static int pipe_fds[2], full[2], pair[2], epoll_fd, event_fd;
static unsigned futex_word;
static sem_t semaphore;
static void feeds(void) {
    char b[4096];
    if (write(pipe_fds[1], "x", 1) < 0 || write(pair[1], "y", 1) < 0 || write(event_fd, &(long){1}, 8) < 0 || read(full[0], b, sizeof b) < 0)
        perror("feeding");
    __atomic_store_n(&futex_word, 1, __ATOMIC_SEQ_CST);
    syscall(SYS_futex, &futex_word, FUTEX_WAKE, 10, NULL, NULL, 0);
    sem_post(&semaphore);
}

static long sleeps_in(int which) {
    char b[4096];
    struct pollfd p = {.fd = pair[0], .events = POLLIN | POLLPRI};
    struct epoll_event e;
    fd_set set;
    struct timeval tv = {5, 0};
    struct timespec ts = {5, 0};
    FD_ZERO(&set);
    FD_SET(pair[0], &set);
    struct iovec v = {b, 1};
    struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1};
    int status;
    switch (which) {
    case 0: return read(pipe_fds[0], b, 1);
    case 1: return readv(pipe_fds[0], &v, 1);
    case 2: return write(full[1], b, 4096);
    case 3: return recv(pair[0], b, 1, 0);
    case 4: return recvmsg(pair[0], &m, 0);
    case 5: return poll(&p, 1, 5000);
    case 6: return ppoll(&p, 1, &ts, NULL);
    case 7: return select(pair[0] + 1, &set, NULL, NULL, &tv);
    case 8: return pselect(pair[0] + 1, &set, NULL, NULL, &ts, NULL);
    case 9: return epoll_wait(epoll_fd, &e, 1, 5000);
    case 10: return read(event_fd, b, 8);
    case 11: return syscall(SYS_futex, &futex_word, FUTEX_WAIT, 0, NULL, NULL, 0);
    case 12: return syscall(SYS_futex, &futex_word, FUTEX_WAIT, 0, &ts, NULL, 0);
    case 13: return sem_wait(&semaphore);
    case 14: return nanosleep(&(struct timespec){0, 150000000}, NULL);
    case 15: return pause();
    case 16: return sigsuspend(&(sigset_t){0});
    case 17: return waitpid(-1, &status, 0) > 0 ? 1 : -1;
    case 18: return recv(pair[0], b, 1, 0);
    default: return 0;
    }
}

static void restarts(void) {
    static const char *names[] = {"read of a pipe", "readv of a pipe", "write to a full pipe", "recv", "recvmsg", "poll", "ppoll", "select", "pselect", "epoll_wait", "read of an eventfd", "futex", "futex with a time-out", "sem_wait", "nanosleep", "pause", "sigsuspend", "waitpid", "recv with SO_RCVTIMEO"};
    main_thread = pthread_self();
    for (int restart = 0; restart < 2; restart++)
        for (int which = 0; which < 19; which++) {
            char fill[65536];
            if (pipe(pipe_fds) || pipe(full) || socketpair(AF_UNIX, SOCK_STREAM, 0, pair))
                perror("pipe");
            memset(fill, 0, sizeof fill);
            if (write(full[1], fill, sizeof fill) < 0)
                perror("fill");
            event_fd = eventfd(0, 0);
            epoll_fd = epoll_create1(0);
            epoll_ctl(epoll_fd, EPOLL_CTL_ADD, pair[0], &(struct epoll_event){.events = EPOLLIN});
            futex_word = 0;
            sem_init(&semaphore, 0, 0);
            if (which == 18)
                setsockopt(pair[0], SOL_SOCKET, SO_RCVTIMEO, &(struct timeval){5, 0}, sizeof(struct timeval));
            pid_t child = 0;
            if (which == 17) {
                child = fork();
                if (child == 0) {
                    usleep(150000);
                    _exit(0);
                }
            }
            catch(SIGUSR1, restart ? SA_RESTART : 0);
            forget();
            stop_sending = 0;
            pthread_t thread;
            pthread_create(&thread, NULL, sender, feeds);
            errno = 0;
            long r = sleeps_in(which);
            int error = errno;
            stop_sending = 1;
            errno = error;
            RESULT(CASE("%s, SA_RESTART %d", names[which], restart), r);
            CHECK(CASE("%s, the handler ran, SA_RESTART %d", names[which], restart), got[SIGUSR1] > 0);
            pthread_join(thread, NULL);
            if (child) {
                kill(child, SIGKILL);
                waitpid(child, NULL, 0);
            }
            close(pipe_fds[0]), close(pipe_fds[1]), close(full[0]), close(full[1]), close(pair[0]), close(pair[1]), close(event_fd), close(epoll_fd);
        }
    signal(SIGUSR1, SIG_DFL);
}

static void files_of_signals(void) {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    sigaddset(&set, SIGRTMIN + 1);
    sigprocmask(SIG_BLOCK, &set, NULL);
    int fd = -1;
    struct signalfd_siginfo i[4];
    WORKS("signalfd", fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC));
    RESULT("signalfd with strange flags", signalfd(-1, &set, 1));
    RESULT("signalfd of no signalfd", signalfd(0, &set, 0));
    RESULT("signalfd with another size", syscall(SYS_signalfd4, -1, &set, 4, 0));
    RESULT("read of nothing", read(fd, i, sizeof i));
    RESULT("a short read", read(fd, i, 100));
    struct pollfd p = {.fd = fd, .events = POLLIN};
    RESULT("poll of nothing", poll(&p, 1, 0));
    sigqueue(getpid(), SIGRTMIN + 1, (union sigval){.sival_int = 5});
    sigqueue(getpid(), SIGRTMIN + 1, (union sigval){.sival_int = 6});
    kill(getpid(), SIGUSR1);
    RESULT("poll", poll(&p, 1, 0));
    RESULT("read", read(fd, i, sizeof i) / (long)sizeof *i);
    for (int k = 0; k < 3; k++)
        show(CASE("record %d", k), "signo %d code %d int %d %s", i[k].ssi_signo, i[k].ssi_code, i[k].ssi_int, i[k].ssi_pid == (unsigned)getpid() ? "self" : "another");
    sigdelset(&set, SIGUSR1);
    RESULT("another set", signalfd(fd, &set, 0) == fd ? 0 : -1);
    kill(getpid(), SIGUSR1);
    RESULT("poll of one that is not in it", poll(&p, 1, 0));
    RESULT("write", write(fd, i, 128));
    close(fd);
    signal(SIGUSR1, SIG_IGN);
    sigprocmask(SIG_SETMASK, &(sigset_t){0}, NULL);
    signal(SIGUSR1, SIG_DFL);
}

int main(void) {
    setvbuf(stdout, NULL, _IONBF, 0);
    dispositions();
    handlers();
    queues();
    stacks();
    exceptions();
    restarts();
    files_of_signals();
    return 0;
}

// Signals: what a handler is told, masks, stacks, restarts, timers, sleeping.
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

static volatile int depth, deepest, count;
static char alternate[65536];
static void told(int signal, siginfo_t *info, void *context) {
    ucontext_t *u = context;
    int inside = (char *)&u > alternate && (char *)&u < alternate + sizeof alternate;
    printf("signal %d code %d pid %d value %d altstack %d flags %#x aligned %d\n", signal, info->si_code, info->si_pid == getpid(),
           info->si_code == SI_QUEUE ? info->si_value.sival_int : 0, inside, u->uc_stack.ss_flags, ((uintptr_t)__builtin_frame_address(0) & 15) == 0);
}
static void on(int signal, void (*f)(int, siginfo_t *, void *), int flags) {
    struct sigaction a = {.sa_sigaction = f, .sa_flags = SA_SIGINFO | flags};
    sigaction(signal, &a, NULL);
}
static void nested(int signal, siginfo_t *i, void *c) {
    if (++depth > deepest) deepest = depth;
    if (count++ < 3) raise(signal);
    depth--;
}
static void counts(int signal, siginfo_t *i, void *c) { count++; }
static char *protected;
static void repairs(int signal, siginfo_t *info, void *context) {
    printf("fault at +%ld code %d error %#llx\n", (long)((char *)info->si_addr - protected), info->si_code,
           ((ucontext_t *)context)->uc_mcontext.gregs[REG_ERR] & 0x17);
    mprotect(protected, 4096, PROT_READ | PROT_WRITE);
}
static void skips(int signal, siginfo_t *info, void *context) {
    greg_t *regs = ((ucontext_t *)context)->uc_mcontext.gregs;
    printf("skips %d code %d\n", signal, info->si_code);
    regs[REG_RIP] += 2, regs[REG_RAX] = 77;
}
static long ms_since(struct timespec *t) {
    struct timespec n;
    clock_gettime(CLOCK_MONOTONIC, &n);
    return (n.tv_sec - t->tv_sec) * 1000 + (n.tv_nsec - t->tv_nsec) / 1000000;
}
static void alarm_in(int ms, int every) {
    struct itimerval t = {{0, every * 1000}, {0, ms * 1000}};
    setitimer(ITIMER_REAL, &t, NULL);
}
static int ends[2];
static void *writer(void *arg) { usleep(150000); if (write(ends[1], "x", 1) != 1) return arg; return NULL; }

int main(void) {
    setvbuf(stdout, NULL, _IONBF, 0);
    stack_t stack = {.ss_sp = alternate, .ss_size = sizeof alternate}, old;
    sigaltstack(&stack, NULL);
    on(SIGUSR1, told, 0), on(SIGUSR2, told, SA_ONSTACK), on(SIGRTMIN, told, 0);
    kill(getpid(), SIGUSR1), raise(SIGUSR2), syscall(SYS_tgkill, getpid(), getpid(), SIGUSR1);
    sigqueue(getpid(), SIGRTMIN, (union sigval){.sival_int = 42});
    sigaltstack(NULL, &old);
    printf("altstack %d %zu\n", old.ss_flags, old.ss_size);

    // Blocked: ordinary signals merge, real-time ones queue, the lowest comes first.
    sigset_t set, pending, was;
    sigfillset(&set);
    sigprocmask(SIG_BLOCK, &set, &was);
    for (int i = 0; i < 3; i++) raise(SIGUSR1), sigqueue(getpid(), SIGRTMIN + 1, (union sigval){.sival_int = i});
    sigqueue(getpid(), SIGRTMIN, (union sigval){.sival_int = 9});
    on(SIGRTMIN + 1, told, 0);
    sigpending(&pending);
    printf("pending %d %d %d\n", sigismember(&pending, SIGUSR1), sigismember(&pending, SIGRTMIN + 1), sigismember(&pending, SIGUSR2));
    siginfo_t info;
    struct timespec tiny = {0, 20000000};
    sigemptyset(&pending), sigaddset(&pending, SIGRTMIN + 1);
    printf("sigwaitinfo %d", sigwaitinfo(&pending, &info) - SIGRTMIN), printf(" value %d\n", info.si_value.sival_int);
    sigemptyset(&pending), sigaddset(&pending, SIGHUP);
    printf("sigtimedwait %d", sigtimedwait(&pending, &info, &tiny)), printf(" %s\n", strerror(errno));
    sigprocmask(SIG_SETMASK, &was, NULL);

    on(SIGUSR1, nested, SA_NODEFER), raise(SIGUSR1);
    printf("nested %d %d\n", deepest, count);
    count = deepest = 0, on(SIGUSR1, nested, 0), raise(SIGUSR1);
    printf("not nested %d %d\n", deepest, count);
    on(SIGUSR1, counts, SA_RESETHAND), raise(SIGUSR1);
    struct sigaction now;
    sigaction(SIGUSR1, NULL, &now);
    printf("reset %d\n", now.sa_handler == SIG_DFL);

    protected = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    (void)*(volatile char *)protected;      // present from now on
    on(SIGSEGV, repairs, SA_ONSTACK), on(SIGILL, skips, 0);
    protected[123] = 5;
    long rax = 0;
    asm volatile("ud2" : "+a"(rax));
    printf("repaired %d skipped %ld\n", protected[123], rax);

    // A sleep that is cut short says what was left; a read starts again or does not.
    struct timespec start, left = {0, 0}, second = {1, 0};
    on(SIGALRM, counts, 0), count = 0;
    clock_gettime(CLOCK_MONOTONIC, &start), alarm_in(50, 0);
    int r = nanosleep(&second, &left);
    printf("nanosleep %d %s left %d count %d\n", r, strerror(errno), left.tv_sec == 0 && left.tv_nsec > 500000000, count);
    struct timespec until = start;
    until.tv_sec += 1, alarm_in(50, 0);
    printf("absolute %s\n", strerror(clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL)));
    if (pipe(ends)) return 1;
    char byte;
    alarm_in(50, 0), r = read(ends[0], &byte, 1);
    printf("read %d %s\n", r, strerror(errno));
    pthread_t t;
    pthread_create(&t, NULL, writer, NULL);
    on(SIGALRM, counts, SA_RESTART), count = 0, alarm_in(50, 0), r = read(ends[0], &byte, 1);
    printf("restarted %d %c count %d\n", r, byte, count);
    pthread_join(t, NULL);
    count = 0, clock_gettime(CLOCK_MONOTONIC, &start), alarm_in(20, 20);
    while (count < 10) pause();
    alarm_in(0, 0);
    long ms = ms_since(&start);
    printf("ten ticks of 20 ms: %d\n", ms >= 190 && ms < 3000);
    alarm_in(30, 0), sigemptyset(&set), count = 0;
    sigsuspend(&set);
    printf("sigsuspend %s count %d\n", strerror(errno), count);
    signal(SIGPIPE, SIG_IGN), close(ends[0]);
    r = write(ends[1], "x", 1);
    printf("epipe %d %s\n", r, strerror(errno));
    signal(SIGTERM, SIG_DFL);
    kill(getpid(), SIGTERM);
    return 1;
}

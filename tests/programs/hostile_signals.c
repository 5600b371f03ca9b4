// Signals that are delivered where there is no room for them, and frames that no kernel wrote. `list` prints the cases with one
// outcome; `frames SEED COUNT` returns from COUNT damaged signal frames.
#define _GNU_SOURCE
#include <errno.h>
#include <setjmp.h>
#include <stddef.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <ucontext.h>
#include <unistd.h>

static char alternate[65536] __attribute__((aligned(64)));
static void say(const char *text) { if (write(1, text, strlen(text)) < 0) _exit(99); }
static void on_signal(int signal) { say(signal == SIGSEGV ? "segv handler\n" : "handler\n"); _exit(3); }

static void install(int signal, int flags) {
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = flags};
    sigaction(signal, &action, NULL);
}
static void with_stack(uintptr_t top, int by_kill) {
    if (by_kill) {
        long pid = getpid(), number = SYS_kill;
        asm volatile("mov %0, %%rsp; syscall; hlt" ::"r"(top), "a"(number), "D"(pid), "S"((long)SIGUSR1) : "memory");
    } else {
        asm volatile("mov %0, %%rsp; ud2" ::"r"(top) : "memory");
    }
}
static uintptr_t none(void) { return (uintptr_t)mmap(NULL, 65536, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0); }
static uintptr_t read_only(void) { return (uintptr_t)mmap(NULL, 65536, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0); }

static const uintptr_t tops[] = {0, 1, 8, 64, 4096, 0x7fff00004000, 0x800000000000, 0x8000000000000000, 0xffff800000000000, -8UL, -1UL};
enum { TOPS = sizeof tops / sizeof *tops };

static void alternate_at(uintptr_t base, size_t size, int raise_it) {
    stack_t stack = {.ss_sp = (void *)base, .ss_size = size};
    int r = sigaltstack(&stack, NULL);
    char line[80];
    snprintf(line, sizeof line, "sigaltstack %d errno %d\n", r, r ? errno : 0);
    say(line);
    install(SIGUSR1, SA_ONSTACK);
    if (raise_it) raise(SIGUSR1);
}

static sigjmp_buf back;
static volatile int loops;
static void jump_back(int signal) {
    static int alarms;
    if (signal == SIGALRM && ++alarms > 20) _exit(0);   // a frame may have led into a loop that nothing else ends
    siglongjmp(back, 1);
}

static uint64_t state;
static uint64_t chance(void) { return state ^= state << 13, state ^= state >> 7, state ^= state << 17; }

// Damages the frame that the kernel is about to take back.
static void damage(int signal, siginfo_t *info, void *context) {
    (void)signal, (void)info;
    ucontext_t *u = context;
    unsigned char *frame = (unsigned char *)u;
    switch (chance() % 8) {
    case 0: u->uc_mcontext.gregs[chance() % 16] = chance(); break;                         // a general register, rsp too
    case 1: u->uc_mcontext.gregs[REG_RIP] = chance(); break;
    case 2: u->uc_mcontext.gregs[REG_EFL] = chance(); break;
    case 3: u->uc_mcontext.gregs[REG_CSGSFS] = chance(); break;                            // cs and ss
    case 4: u->uc_mcontext.fpregs = (void *)chance(); break;
    case 5: for (int i = 0; i < 16; i++) ((unsigned char *)u->uc_mcontext.fpregs)[chance() % 1024] = chance(); break;
    case 6: u->uc_stack.ss_sp = (void *)chance(), u->uc_stack.ss_size = chance(), u->uc_flags = chance(); break;
    case 7: for (int i = 0; i < 8; i++) frame[chance() % offsetof(ucontext_t, uc_sigmask)] = chance(); break;
    }
}

static void frames(uint64_t seed, int count) {
    state = seed * 0x9e3779b97f4a7c15 + 1;
    stack_t stack = {.ss_sp = alternate, .ss_size = sizeof alternate};
    struct sigaction action = {.sa_sigaction = damage, .sa_flags = SA_SIGINFO};
    sigaction(SIGUSR1, &action, NULL);
    struct sigaction caught = {.sa_handler = jump_back, .sa_flags = SA_ONSTACK | SA_NODEFER};
    int signals[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP, SIGSYS, SIGALRM};
    for (int i = 0; i < 7; i++) sigaction(signals[i], &caught, NULL);
    struct itimerval often = {.it_interval = {0, 200000}, .it_value = {0, 200000}};
    setitimer(ITIMER_REAL, &often, NULL);
    while (loops++ < count) {
        sigsetjmp(back, 1);
        sigset_t nothing;
        sigemptyset(&nothing);
        sigprocmask(SIG_SETMASK, &nothing, NULL);
        sigaltstack(&stack, NULL);
        if (getenv("V")) printf("%d\n",loops),fflush(stdout); if (loops < count) {
            loops++;
            if (chance() % 4 == 0) {            // a frame of nothing but chance, or none at all
                static uint64_t garbage[256];
                for (int i = 0; i < 256; i++) garbage[i] = chance() >> (chance() % 64);
                if (chance() % 64) garbage[offsetof(ucontext_t, uc_sigmask) / 8] = 0;    // else a blocked SIGSEGV may end it all
                uintptr_t sp = chance() % 4 ? (uintptr_t)garbage : chance();
                asm volatile("mov %0, %%rsp; mov $15, %%eax; syscall; ud2" ::"r"(sp) : "memory");
            }
            raise(SIGUSR1);
        }
    }
    say("done\n");
    _exit(0);
}

int main(int argc, char **argv) {
    if (argc < 2) return 98;
    if (!strcmp(argv[1], "frames")) frames(strtoull(argv[2], NULL, 0), atoi(argv[3]));
    if (!strcmp(argv[1], "list")) {
        for (int i = 0; i < TOPS; i++) printf("fault-%d\nkill-%d\nfault-segv-%d\naltstack-%d\n", i, i, i, i);
        printf("altstack-none\naltstack-read-only\naltstack-small\naltstack-in-use\nblocked-fault\nignored-fault\nreset\nsigreturn-none\n");
        return 0;
    }
    char *dash = strrchr(argv[1], '-');
    int i = dash ? atoi(dash + 1) : 0;
    uintptr_t top = tops[i % TOPS];
    stack_t good = {.ss_sp = alternate, .ss_size = sizeof alternate};
    if (!strncmp(argv[1], "fault-segv", 10)) {      // no room for SIGILL, but for the SIGSEGV that this means
        sigaltstack(&good, NULL);
        install(SIGILL, 0), install(SIGSEGV, SA_ONSTACK);
        with_stack(top, 0);
    } else if (!strncmp(argv[1], "fault", 5)) {
        install(SIGILL, 0);
        with_stack(top, 0);
    } else if (!strncmp(argv[1], "kill", 4)) {
        install(SIGUSR1, 0);
        with_stack(top, 1);
    } else if (!strcmp(argv[1], "altstack-none")) {
        alternate_at(none(), 65536, 1);
    } else if (!strcmp(argv[1], "altstack-read-only")) {
        alternate_at(read_only(), 65536, 1);
    } else if (!strcmp(argv[1], "altstack-small")) {
        alternate_at((uintptr_t)alternate, 100, 0);
        alternate_at((uintptr_t)alternate, 2048, 1);
    } else if (!strcmp(argv[1], "altstack-in-use")) {
        sigaltstack(&good, NULL);
        asm volatile("mov %0, %%rsp" ::"r"(alternate + 32768) : "memory");
        alternate_at((uintptr_t)alternate, 65536, 0);
        _exit(0);
    } else if (!strncmp(argv[1], "altstack", 8)) {
        alternate_at(top, 65536, 1);
    } else if (!strcmp(argv[1], "blocked-fault")) {  // a fault whose signal is blocked kills, whatever the handler
        install(SIGSEGV, 0);
        sigset_t set;
        sigfillset(&set);
        sigprocmask(SIG_SETMASK, &set, NULL);
        *(volatile int *)16 = 1;
    } else if (!strcmp(argv[1], "ignored-fault")) {
        signal(SIGSEGV, SIG_IGN);
        *(volatile int *)16 = 1;
    } else if (!strcmp(argv[1], "reset")) {
        signal(SIGKILL, SIG_IGN) == SIG_ERR ? say("cannot ignore SIGKILL\n") : say("ignored SIGKILL\n");
        raise(SIGTERM);
    } else if (!strcmp(argv[1], "sigreturn-none")) {
        syscall(SYS_rt_sigreturn);
    }
    say("went on\n");
    return 0;
}

// ptrace: stops and their order, registers and memory, events, options, attaching, groups, permissions, the end of tracees and tracers.
#include "check.h"
#include <elf.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/ptrace.h>
#include <pthread.h>
#include <sched.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <time.h>

enum { TRACEME = 0, PEEK = 1, PEEKUSER = 3, POKE = 4, POKEUSER = 6, CONT = 7, KILL = 8, STEP = 9, GETREGS = 12, SETREGS = 13, GETFPREGS = 14, SETFPREGS = 15,
       ATTACH = 16, DETACH = 17, SYSCALL = 24, SETOPTIONS = 0x4200, GETEVENTMSG, GETSIGINFO, SETSIGINFO, GETREGSET, SETREGSET, SEIZE, INTERRUPT, LISTEN, PEEKSIGINFO,
       GETSIGMASK, SETSIGMASK, SYSCALL_INFO = 0x420e };

static long pt(long request, pid_t pid, unsigned long addr, unsigned long data) { return syscall(SYS_ptrace, request, pid, addr, data); }

static const char *word(int status) {
    static char text[4][64];
    static int next;
    char *t = text[next++ % 4];
    if (WIFEXITED(status))
        sprintf(t, "exited %d", WEXITSTATUS(status));
    else if (WIFSIGNALED(status))
        sprintf(t, "killed %d", WTERMSIG(status));
    else if (WIFSTOPPED(status))
        sprintf(t, "stopped %d event %d", WSTOPSIG(status), status >> 16);
    else
        sprintf(t, "status %x", status);
    return t;
}

// Waits for one tracee and tells what happened.
static int next(const char *name, pid_t pid) {
    int status = -1;
    alarm(20);
    pid_t got = waitpid(pid, &status, __WALL);
    alarm(0);
    if (got == -1)
        show(name, "-1 %s", strerrorname_np(errno));
    else
        show(name, "%s", word(status));
    return status;
}

static pid_t child_that(void (*does)(void)) {
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        does();
        _exit(0);
    }
    return child;
}

static pid_t traced(void (*does)(void)) {
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        pt(TRACEME, 0, 0, 0);
        kill(getpid(), SIGSTOP);
        does();
        _exit(0);
    }
    int status;
    if (waitpid(child, &status, 0) != child || status != 0x137f)
        show("a tracee's first stop", "%x", status);
    return child;
}

static void finish(pid_t child) {
    int status;
    kill(child, SIGKILL);
    while (waitpid(child, &status, __WALL) == child && !WIFEXITED(status) && !WIFSIGNALED(status))
        ;
}

static const char *siginfo(pid_t pid, pid_t me) {
    static char text[128];
    siginfo_t i = {0};
    if (pt(GETSIGINFO, pid, 0, (long)&i) == -1)
        return strerrorname_np(errno);
    int user = i.si_code == SI_USER || i.si_code == SI_QUEUE || i.si_code == SI_TKILL;
    sprintf(text, "signo %d code %d errno %d %s", i.si_signo, i.si_code, i.si_errno, !user ? "" : i.si_pid == pid ? "of itself" : i.si_pid == me ? "of the tracer" : "of another");
    return text;
}

// ---- errors, and who may ----

static void sleeps(void) {
    for (;;)
        pause();
}
static void spins(void) {
    for (;;)
        __asm__ volatile("pause");
}

static void errors(void) {
    pid_t child = child_that(sleeps);
    static const int requests[] = {PEEK, PEEKUSER, POKE, CONT, STEP, SYSCALL, GETREGS, SETREGS, DETACH, SETOPTIONS, GETEVENTMSG, GETSIGINFO, INTERRUPT, LISTEN, KILL, 77, 0x4300};
    for (int i = 0; i < 17; i++)
        RESULT(CASE("request %d of one that is not traced", requests[i]), pt(requests[i], child, 0, 0));
    RESULT("attach to nobody", pt(ATTACH, 0x3ffffff, 0, 0));
    RESULT("attach to oneself", pt(ATTACH, getpid(), 0, 0));
    RESULT("attach to a negative process", pt(ATTACH, -1, 0, 0));
    RESULT("attach to process 0", pt(ATTACH, 0, 0, 0));
    RESULT("seize with an address", pt(SEIZE, child, 8, 0));
    RESULT("seize with unknown options", pt(SEIZE, child, 0, 0x100));
    RESULT("seize", pt(SEIZE, child, 0, 0));
    RESULT("seize again", pt(SEIZE, child, 0, 0));
    RESULT("attach to a tracee", pt(ATTACH, child, 0, 0));
    for (int i = 0; i < 17; i++)
        if (requests[i] != KILL && requests[i] != INTERRUPT)
            RESULT(CASE("request %d of one that runs", requests[i]), pt(requests[i], child, 0, 0));
    RESULT("WNOHANG finds nothing", waitpid(child, NULL, WNOHANG));
    RESULT("interrupt", pt(INTERRUPT, child, 0, 0));
    next("then", child);
    RESULT("WNOHANG after it was told", waitpid(child, NULL, WNOHANG));
    RESULT("an unknown request", pt(77, child, 0, 0));
    RESULT("unknown options", pt(SETOPTIONS, child, 0, 0x100));
    RESULT("a signal that is none", pt(CONT, child, 0, 65));
    RESULT("a negative signal", pt(DETACH, child, 0, -1));
    static const unsigned long offsets[] = {1, 4, 216, 848, 904, 912, 1000, -8};
    unsigned long value;
    for (int i = 0; i < 8; i++) {
        RESULT(CASE("peek user %ld", (long)offsets[i]), pt(PEEKUSER, child, offsets[i], (long)&value));
        RESULT(CASE("poke user %ld", (long)offsets[i]), pt(POKEUSER, child, offsets[i], 0));
    }
    static const struct { const char *name; size_t at; unsigned long value; } pokes[] = {
        {"cs", offsetof(struct user_regs_struct, cs), 0x33}, {"cs of the kernel", offsetof(struct user_regs_struct, cs), 0x10}, {"no cs", offsetof(struct user_regs_struct, cs), 0},
        {"ss", offsetof(struct user_regs_struct, ss), 0x2b}, {"ss of the kernel", offsetof(struct user_regs_struct, ss), 0x18}, {"ds of the kernel", offsetof(struct user_regs_struct, ds), 0x10},
        {"ds", offsetof(struct user_regs_struct, ds), 0}, {"fs base in the kernel", offsetof(struct user_regs_struct, fs_base), 0xffff800000000000},
        {"gs base", offsetof(struct user_regs_struct, gs_base), 0x1000}, {"all flags", offsetof(struct user_regs_struct, eflags), ~0ul},
    };
    for (size_t i = 0; i < sizeof pokes / sizeof *pokes; i++)
        RESULT(CASE("poke %s", pokes[i].name), pt(POKEUSER, child, pokes[i].at, pokes[i].value));
    struct user_regs_struct regs;
    RESULT("registers", pt(GETREGS, child, 0, (long)&regs));
    show("flags that were taken", "%llx", regs.eflags & ~0x4200);
    show("segments", "%llx %llx %llx %llx %llx %llx", regs.cs, regs.ss, regs.ds, regs.es, regs.fs, regs.gs);
    show("gs base", "%llx", regs.gs_base);
    RESULT("peek nowhere", pt(PEEK, child, 8, (long)&value));
    RESULT("peek beyond user memory", pt(PEEK, child, -4096, (long)&value));
    RESULT("poke nowhere", pt(POKE, child, 8, 1));
    RESULT("peek to nowhere", pt(PEEK, child, (long)&value, 8));
    RESULT("registers to nowhere", pt(GETREGS, child, 0, 8));
    RESULT("registers from nowhere", pt(SETREGS, child, 0, 8));
    char buffer[16384];
    struct iovec v = {buffer, sizeof buffer};
    RESULT("an unknown register set", pt(GETREGSET, child, 99, (long)&v));
    RESULT("a register set to nowhere", pt(GETREGSET, child, NT_PRSTATUS, 8));
    v.iov_len = 7;
    RESULT("a part of a register", pt(GETREGSET, child, NT_PRSTATUS, (long)&v));
    for (size_t n = 0; n < 400; n += 72) {
        v.iov_len = n;
        RESULT(CASE("%zu bytes of registers", n), pt(GETREGSET, child, NT_PRSTATUS, (long)&v));
        show(CASE("%zu bytes asked", n), "%zu", v.iov_len);
    }
    v.iov_len = sizeof buffer;
    RESULT("floating-point registers", pt(GETREGSET, child, NT_PRFPREG, (long)&v));
    show("their size", "%zu", v.iov_len);
    v.iov_len = 512;
    RESULT("a part of the extended state", pt(SETREGSET, child, NT_X86_XSTATE, (long)&v));
    uint64_t mask;
    RESULT("the mask with a wrong size", pt(GETSIGMASK, child, 4, (long)&mask));
    RESULT("listen where there is an event stop", pt(LISTEN, child, 0, 0));
    RESULT("registers of one that listens", pt(GETREGS, child, 0, (long)&regs));
    RESULT("kill", pt(KILL, child, 0, 0));
    next("its end", child);
    RESULT("once it is gone", pt(CONT, child, 0, 0));
}

static void as_user(int hidden) {
    setgroups(0, NULL);
    if (setresgid(1000, 1000, 1000) != 0 || setresuid(1000, 1000, 1000) != 0)
        perror("setresuid");
    prctl(PR_SET_DUMPABLE, !hidden);
}
static void user_sleeps(void) { as_user(0); sleeps(); }
static void hidden_sleeps(void) { as_user(1); sleeps(); }

static void permissions(void) {
    pid_t root = child_that(sleeps), user = child_that(user_sleeps), hidden = child_that(hidden_sleeps);
    usleep(20000);
    fflush(stdout);
    pid_t tester = fork();
    if (tester == 0) {
        as_user(0);
        RESULT("a user attaches to root's process", pt(ATTACH, root, 0, 0));
        RESULT("a user seizes one that hides", pt(SEIZE, hidden, 0, 0));
        RESULT("a user seizes its own", pt(SEIZE, user, 0, 0));
        _exit(0);
    }
    waitpid(tester, NULL, 0);
    RESULT("root seizes the one that hides", pt(SEIZE, hidden, 0, 0));
    RESULT("and the one whose tracer has ended", pt(SEIZE, user, 0, 0));
    pid_t second = fork();
    if (second == 0) {
        RESULT("a second tracer", pt(SEIZE, user, 0, 0));
        RESULT("a request of another", pt(INTERRUPT, user, 0, 0));
        _exit(0);
    }
    waitpid(second, NULL, 0);
    finish(root);
    finish(user);
    finish(hidden);
}

// ---- system calls ----

static int channel[2];

static void makes_calls(void) {
    char b[8] = "abcdefg";
    syscall(SYS_getppid, 1, 2, 3, 4, 5, 6);
    syscall(SYS_write, channel[1], b, 3);
    syscall(SYS_read, channel[0], b, 3);
    syscall(SYS_close, 999, 0, 0);
    syscall(777, 1, 2, 3, 4, 5, 6);
    long r = syscall(SYS_getpid);
    long s = syscall(SYS_write, channel[1], b, 3);
    _exit(r == 1234 ? (int)s + 40 : 1);
}

static void calls(int good) {
    if (pipe(channel) != 0)
        perror("pipe");
    pid_t child = traced(makes_calls);
    const char *kind = good ? "good" : "plain";
    if (good)
        RESULT("TRACESYSGOOD", pt(SETOPTIONS, child, 0, PTRACE_O_TRACESYSGOOD));
    struct user_regs_struct regs;
    int status = 0, in = 1;
    for (int n = 0; n < 40; n++, in = !in) {
        pt(SYSCALL, child, 0, 0);
        status = next(CASE("%s: stop %d", kind, n), child);
        if (!WIFSTOPPED(status))
            break;
        pt(GETREGS, child, 0, (long)&regs);
        long nr = regs.orig_rax;
        if (nr == SYS_kill || nr == SYS_write || nr == SYS_read || nr == SYS_getpid || nr == SYS_getppid || nr == SYS_close || nr == 777 || nr == SYS_exit_group)
            show(CASE("%s: registers %d", kind, n), "number %ld result %ld third %lld", nr, in || nr != SYS_getppid ? (nr == SYS_getpid && !in ? 0 : (long)regs.rax) : 0, regs.rdx);
        show(CASE("%s: siginfo %d", kind, n), "%s", siginfo(child, getpid()));
        unsigned long message = 99;
        pt(GETEVENTMSG, child, 0, (long)&message);
        show(CASE("%s: message %d", kind, n), "%lu", message);
        struct ptrace_syscall_info info;
        memset(&info, 0, sizeof info);
        long size = pt(SYSCALL_INFO, child, sizeof info, (long)&info);
        show(CASE("%s: info %d", kind, n), "size %ld op %d arch %x", size, info.op, info.arch);
        if (info.op == 1)
            show(CASE("%s: entry %d", kind, n), "%llu: %s", info.entry.nr, info.entry.nr == 777 || info.entry.nr == SYS_getppid ? CASE("%llx %llx %llx %llx %llx %llx", info.entry.args[0], info.entry.args[1], info.entry.args[2], info.entry.args[3], info.entry.args[4], info.entry.args[5]) : "");
        if (info.op == 2)
            show(CASE("%s: exit %d", kind, n), "error %d", info.exit.is_error);
        CHECK(CASE("%s: where %d", kind, n), good == 0 || (info.instruction_pointer == regs.rip && info.stack_pointer == regs.rsp));
        if (in && nr == SYS_write && regs.rdx == 3 && good)
            pt(POKEUSER, child, offsetof(struct user_regs_struct, rdx), 2);
        if (in && nr == SYS_close) {
            // Another call instead.
            pt(POKEUSER, child, offsetof(struct user_regs_struct, orig_rax), SYS_getppid);
        }
        if (in && nr == SYS_getpid) {
            // None at all.
            regs.orig_rax = -1;
            regs.rax = 1234;
            RESULT(CASE("%s: the call is skipped", kind), pt(SETREGS, child, 0, (long)&regs));
        }
    }
    close(channel[0]);
    close(channel[1]);
}

// ---- signals ----

static volatile sig_atomic_t seen, seen_value;
static void notes(int signo, siginfo_t *i, void *context) {
    (void)context;
    seen = signo;
    seen_value = i->si_value.sival_int;
}
static void gets_signals(void) {
    struct sigaction a = {.sa_sigaction = notes, .sa_flags = SA_SIGINFO};
    for (int i = 10; i < 13; i += 2)
        sigaction(i, &a, NULL);
    signal(SIGHUP, SIG_IGN);
    for (int n = 0; n < 6; n++) {
        seen = seen_value = 0;
        if (n == 4)
            kill(getpid(), SIGHUP);
        else if (n == 5)
            kill(getpid(), SIGCHLD);
        else
            sigqueue(getpid(), SIGUSR1, (union sigval){.sival_int = 7});
        char b[2] = {(char)seen, (char)seen_value};
        if (write(channel[1], b, 2) != 2)
            _exit(3);
    }
    kill(getpid(), SIGTERM);
}

static void signals(void) {
    if (pipe(channel) != 0)
        perror("pipe");
    pid_t child = traced(gets_signals);
    char b[2];
    for (int n = 0; n < 6; n++) {
        pt(CONT, child, 0, n == 0 ? 0 : n == 1 ? SIGUSR1 : n == 2 ? 0 : n == 3 ? SIGUSR2 : n == 4 ? SIGUSR1 : SIGHUP);
        next(CASE("signal %d", n), child);
        show(CASE("its siginfo %d", n), "%s", siginfo(child, getpid()));
        if (n > 0 && read(channel[0], b, 2) == 2)
            show(CASE("what the tracee saw %d", n), "%d %d", b[0], b[1]);
        if (n == 3) {
            siginfo_t i;
            pt(GETSIGINFO, child, 0, (long)&i);
            i.si_value.sival_int = 9;
            RESULT("another siginfo", pt(SETSIGINFO, child, 0, (long)&i));
        }
    }
    pt(CONT, child, 0, SIGCHLD);
    next("SIGTERM", child);
    if (read(channel[0], b, 2) == 2)
        show("what the tracee saw in the end", "%d %d", b[0], b[1]);
    pt(CONT, child, 0, SIGKILL);
    next("with SIGKILL instead", child);
    close(channel[0]);
    close(channel[1]);
    // A mask, and what is pending.
    child = traced(sleeps);
    uint64_t mask = 1u << 9 | 1ull << 33, got = 0;
    RESULT("set the mask", pt(SETSIGMASK, child, 8, (long)&mask));
    RESULT("get the mask", pt(GETSIGMASK, child, 8, (long)&got));
    show("the mask", "%llx", (unsigned long long)got);
    kill(child, SIGUSR1);
    for (int n = 0; n < 3; n++)
        sigqueue(child, 34, (union sigval){.sival_int = n});
    syscall(SYS_tgkill, child, child, SIGUSR1);
    siginfo_t many[8];
    for (int shared = 0; shared < 3; shared++)
        for (int from = 0; from < 3; from++) {
            struct ptrace_peeksiginfo_args args = {from, shared, 2};
            long n = RESULT(CASE("peek at pending signals from %d, kind %d", from, shared), pt(PEEKSIGINFO, child, (long)&args, (long)many));
            for (int i = 0; i < n; i++)
                show(CASE("pending %d %d %d", shared, from, i), "%d code %d value %d", many[i].si_signo, many[i].si_code, many[i].si_signo == 34 ? many[i].si_value.sival_int : 0);
        }
    struct ptrace_peeksiginfo_args negative = {0, 0, -1};
    RESULT("peek at a negative number", pt(PEEKSIGINFO, child, (long)&negative, (long)many));
    finish(child);
}

// ---- registers, memory, steps ----

__attribute__((noinline, noclone)) static long steps(long x) {
    __asm__ volatile("nop\n nop\n add $5, %0\n nop\n" : "+r"(x));
    return x;
}
extern char code_start[], code_int3[], code_end[], code_call[];
__asm__(".text\n.globl code_start, code_int3, code_end, code_call\n"
        "code_start: nop\n mov $39, %eax\ncode_call: syscall\n nop\ncode_int3: int3\n nop\n nop\ncode_end: mov $60, %eax\n xor %edi, %edi\n syscall\n");

static void runs_code(void) { ((void (*)(void))code_start)(); }
static volatile long shared_word = 0x1122334455667788;
static const long constant_word = 0x8877665544332211;

static void stepping(void) {
    pid_t child = traced(runs_code);
    struct user_regs_struct r;
    pt(GETREGS, child, 0, (long)&r);
    r.rip = (long)code_start;
    r.orig_rax = -1;
    RESULT("jump", pt(SETREGS, child, 0, (long)&r));
    for (int n = 0; n < 8; n++) {
        pt(STEP, child, 0, 0);
        next(CASE("step %d", n), child);
        pt(GETREGS, child, 0, (long)&r);
        show(CASE("step %d: where", n), "%lld trap flag %lld", (long long)r.rip - (long long)code_start, r.eflags >> 8 & 1);
        show(CASE("step %d: siginfo", n), "%s", siginfo(child, getpid()));
    }
    CHECK("the call was made", 1);
    pt(CONT, child, 0, 0);
    next("on to the end", child);
    // A breakpoint.
    child = traced(runs_code);
    unsigned long old = 0;
    RESULT("peek at code", pt(PEEK, child, (long)code_call + 2, (long)&old));
    RESULT("poke into code", pt(POKE, child, (long)code_call + 2, (old & ~0xfful) | 0xcc));
    pt(CONT, child, 0, 0);
    next("the breakpoint", child);
    pt(GETREGS, child, 0, (long)&r);
    show("where", "%lld", (long long)r.rip - (long long)code_start);
    CHECK("its result is in rax", (pid_t)r.rax == child);
    show("its siginfo", "%s", siginfo(child, getpid()));
    pt(POKE, child, (long)code_call + 2, old);
    r.rip--;
    pt(SETREGS, child, 0, (long)&r);
    pt(STEP, child, 0, 0);
    next("a step from there", child);
    pt(CONT, child, 0, 0);
    next("int3 of its own", child);
    pt(GETREGS, child, 0, (long)&r);
    show("where that is", "%lld", (long long)r.rip - (long long)code_start);
    CHECK("our own code is as it was", *(unsigned char *)(code_call + 2) == 0x90);
    unsigned long value = 0;
    RESULT("peek at a word", pt(PEEK, child, (long)&shared_word, (long)&value));
    show("the word", "%lx", value);
    RESULT("poke a word", pt(POKE, child, (long)&shared_word, 42));
    pt(PEEK, child, (long)&shared_word, (long)&value);
    show("the word then", "%lx", value);
    show("our own", "%lx", shared_word);
    RESULT("poke a constant", pt(POKE, child, (long)&constant_word, 43));
    pt(PEEK, child, (long)&constant_word, (long)&value);
    show("the constant then", "%lx", value);
    RESULT("peek askew", pt(PEEK, child, (long)&shared_word + 3, (long)&value));
    // Floating point.
    struct user_fpregs_struct f;
    RESULT("floating-point registers", pt(GETFPREGS, child, 0, (long)&f));
    show("control words", "%x %x", f.cwd, f.mxcsr);
    f.xmm_space[60] = 0x12345678;
    RESULT("set them", pt(SETFPREGS, child, 0, (long)&f));
    memset(&f, 0, sizeof f);
    pt(GETFPREGS, child, 0, (long)&f);
    show("xmm15", "%x", f.xmm_space[60]);
    f.mxcsr = 0xffffffff;
    RESULT("a bad mxcsr", pt(SETFPREGS, child, 0, (long)&f));
    static char image[65536];
    struct iovec v = {image, sizeof image};
    RESULT("extended state", pt(GETREGSET, child, NT_X86_XSTATE, (long)&v));
    CHECK("it has a header", v.iov_len >= 576 && v.iov_len < sizeof image);
    CHECK("it says what there is", (image[464] & 3) == 3);
    RESULT("set it", pt(SETREGSET, child, NT_X86_XSTATE, (long)&v));
    memset(image + 512, 0xff, 64);
    RESULT("set a bad header", pt(SETREGSET, child, NT_X86_XSTATE, (long)&v));
    pt(CONT, child, 0, 0);
    next("the end", child);
}

static void steps_into_handler(void) {
    struct sigaction a = {.sa_sigaction = notes, .sa_flags = SA_SIGINFO};
    sigaction(SIGUSR1, &a, NULL);
    kill(getpid(), SIGUSR1);
    _exit(seen);
}
static void handlers(void) {
    pid_t child = traced(steps_into_handler);
    struct user_regs_struct r;
    pt(CONT, child, 0, 0);
    next("a signal with a handler", child);
    pt(STEP, child, 0, SIGUSR1);
    next("stepped into", child);
    pt(GETREGS, child, 0, (long)&r);
    CHECK("it is at its beginning", r.rip == (unsigned long)notes && r.rdi == SIGUSR1);
    show("why", "%s", siginfo(child, getpid()));
    pt(CONT, child, 0, 0);
    next("the end of that", child);
}

// ---- events ----

static int quits(void *x) {
    (void)x;
    _exit(3);
}
static void begets(void) {
    int status;
    pid_t child = fork();
    if (child == 0)
        _exit(1);
    waitpid(child, &status, 0);
    child = vfork();
    if (child == 0)
        _exit(2);
    waitpid(child, &status, 0);
    static char stack[65536];
    child = clone(quits, stack + sizeof stack, 0, NULL);
    waitpid(child, &status, __WALL);
    execl("/bin/true", "true", (char *)NULL);
    _exit(9);
}

static void events(int seized, unsigned options, const char *name) {
    pid_t child = traced(begets), kids[8] = {0};
    int count = 0, status;
    if (seized) {
        // Seize it anew.
        pt(DETACH, child, 0, SIGSTOP);
        waitpid(child, &status, WUNTRACED);
        RESULT(CASE("%s: seize", name), pt(SEIZE, child, 0, options));
        next(CASE("%s: stopped already", name), child);
        kill(child, SIGCONT);
    } else {
        RESULT(CASE("%s: options", name), pt(SETOPTIONS, child, 0, options));
    }
    pt(CONT, child, 0, 0);
    for (int n = 0; n < 60; n++) {
        alarm(20);
        pid_t got = waitpid(-1, &status, __WALL);
        alarm(0);
        if (got == -1)
            break;
        int known = got == child;
        for (int i = 0; i < count; i++)
            known |= kids[i] == got;
        if (!known && count < 8)
            kids[count++] = got;
        // The order between parent and child is open: each tells its own.
        int who = got == child ? 0 : 1;
        static char logs[2][4096];
        static int used[2];
        if (n == 0)
            used[0] = used[1] = 0, logs[0][0] = logs[1][0] = 0;
        int event = status >> 16;
        unsigned long message = 0;
        if (WIFSTOPPED(status))
            pt(GETEVENTMSG, got, 0, (long)&message);
        used[who] += snprintf(logs[who] + used[who], sizeof logs[who] - used[who], " [%s%s]", word(status), event == PTRACE_EVENT_EXIT ? CASE(" %lx", message) : event == PTRACE_EVENT_EXEC ? (message == (unsigned long)got ? " itself" : " other") : event && event != PTRACE_EVENT_STOP ? (message ? " child" : " none") : "");
        if (got == child && !WIFSTOPPED(status)) {
            show(CASE("%s: the parent", name), "%s", logs[0]);
            show(CASE("%s: the children", name), "%s", logs[1]);
        }
        if (WIFSTOPPED(status)) {
            int signo = WSTOPSIG(status);
            pt(CONT, got, 0, event || signo == SIGTRAP || signo == SIGSTOP ? 0 : signo);
        }
    }
}

static void *thread_body(void *x) {
    (void)x;
    return NULL;
}
static void has_threads(void) {
    pthread_t t;
    for (int i = 0; i < 3; i++) {
        pthread_create(&t, NULL, thread_body, NULL);
        pthread_join(t, NULL);
    }
    _exit(4);
}
static void threads(void) {
    pid_t child = traced(has_threads);
    int status, born = 0, ended = 0, stops = 0, events = 0;
    pt(SETOPTIONS, child, 0, PTRACE_O_TRACECLONE | PTRACE_O_TRACEEXIT);
    pt(CONT, child, 0, 0);
    for (;;) {
        alarm(20);
        pid_t got = waitpid(-1, &status, __WALL);
        alarm(0);
        if (got == -1)
            break;
        if (got == child && status >> 16 == PTRACE_EVENT_CLONE)
            born++;
        else if (got == child && WIFEXITED(status))
            show("the process", "%s", word(status));
        else if (got != child && WIFEXITED(status))
            ended++;
        else if (status >> 16 == PTRACE_EVENT_EXIT)
            events++;
        else if (got != child && WSTOPSIG(status) == SIGSTOP)
            stops++;
        if (WIFSTOPPED(status))
            pt(CONT, got, 0, 0);
    }
    show("threads born, stopped, announced, ended", "%d %d %d %d", born, stops, events, ended);
}

// ---- attaching, groups ----

static void attaching(void) {
    static void (*const kinds[])(void) = {sleeps, spins};
    for (int kind = 0; kind < 2; kind++) {
        const char *name = kind ? "spinning" : "sleeping";
        pid_t child = child_that(kinds[kind]);
        usleep(10000);
        RESULT(CASE("%s: attach", name), pt(ATTACH, child, 0, 0));
        next(CASE("%s: its stop", name), child);
        show(CASE("%s: why", name), "%s", siginfo(child, getpid()));
        char line[64] = "", state = 0;
        FILE *f = fopen(CASE("/proc/%d/status", child), "r");
        int tracer = -1;
        while (fgets(line, sizeof line, f)) {
            sscanf(line, "State: %c", &state);
            sscanf(line, "TracerPid: %d", &tracer);
        }
        fclose(f);
        show(CASE("%s: state", name), "%c traced by %s", state, tracer == getpid() ? "us" : "another");
        struct user_regs_struct r;
        pt(GETREGS, child, 0, (long)&r);
        if (!kind)
            show(CASE("%s: in its call", name), "%lld %lld", r.orig_rax, r.rax);
        else
            show(CASE("%s: in no call", name), "%lld", r.orig_rax);
        RESULT(CASE("%s: detach", name), pt(DETACH, child, 0, 0));
        RESULT(CASE("%s: nothing more", name), waitpid(child, NULL, WNOHANG | __WALL));
        RESULT(CASE("%s: seize", name), pt(SEIZE, child, 0, PTRACE_O_TRACESYSGOOD));
        RESULT(CASE("%s: nothing stops", name), waitpid(child, NULL, WNOHANG | __WALL));
        RESULT(CASE("%s: interrupt", name), pt(INTERRUPT, child, 0, 0));
        next(CASE("%s: interrupted", name), child);
        show(CASE("%s: as", name), "%s", siginfo(child, getpid()));
        pt(SYSCALL, child, 0, 0);
        if (!kind) {
            next(CASE("%s: the call begins again", name), child);
            pt(GETREGS, child, 0, (long)&r);
            show(CASE("%s: which", name), "%lld", r.orig_rax);
            pt(SYSCALL, child, 0, 0);
        }
        // Stop signals.
        kill(child, SIGTSTP);
        int status = next(CASE("%s: SIGTSTP or a stop of its call", name), child);
        if (WSTOPSIG(status) & 0x80) {
            pt(CONT, child, 0, 0);
            next(CASE("%s: SIGTSTP", name), child);
        }
        pt(CONT, child, 0, SIGSTOP);
        next(CASE("%s: stopped with its group", name), child);
        show(CASE("%s: how", name), "%s", siginfo(child, getpid()));
        RESULT(CASE("%s: listen", name), pt(LISTEN, child, 0, 0));
        RESULT(CASE("%s: it stays", name), waitpid(child, NULL, WNOHANG | __WALL));
        kill(child, SIGCONT);
        next(CASE("%s: continued", name), child);
        show(CASE("%s: so", name), "%s", siginfo(child, getpid()));
        pt(CONT, child, 0, 0);
        next(CASE("%s: SIGCONT itself", name), child);
        pt(CONT, child, 0, SIGCONT);
        RESULT(CASE("%s: it runs", name), waitpid(child, NULL, WNOHANG | __WALL));
        kill(child, SIGKILL);
        next(CASE("%s: its end", name), child);
        // The old way.
        child = child_that(kinds[kind]);
        pt(ATTACH, child, 0, 0);
        next(CASE("%s: attached", name), child);
        pt(CONT, child, 0, SIGSTOP);
        next(CASE("%s: stopped with its group, the old way", name), child);
        show(CASE("%s: siginfo of that", name), "%s", siginfo(child, getpid()));
        RESULT(CASE("%s: no listening there", name), pt(LISTEN, child, 0, 0));
        RESULT(CASE("%s: no interrupting", name), pt(INTERRUPT, child, 0, 0));
        RESULT(CASE("%s: detached with its group", name), pt(DETACH, child, 0, 0));
        next(CASE("%s: it is stopped still", name), -child);
        waitpid(child, &status, WUNTRACED | WNOHANG);
        kill(child, SIGCONT);
        finish(child);
    }
}

static void interrupted_calls(void) {
    if (pipe(channel) != 0)
        perror("pipe");
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        char b = 0;
        struct timespec t = {0, 150000000}, before, after;
        clock_gettime(CLOCK_MONOTONIC, &before);
        int slept = nanosleep(&t, NULL);
        clock_gettime(CLOCK_MONOTONIC, &after);
        long ms = (after.tv_sec - before.tv_sec) * 1000 + (after.tv_nsec - before.tv_nsec) / 1000000;
        ssize_t n = read(channel[0], &b, 1);
        _exit((slept == 0) | (ms >= 149) << 1 | (n == 1 && b == 'x') << 2);
    }
    pt(SEIZE, child, 0, 0);
    for (int n = 0; n < 5; n++) {
        usleep(10000);
        pt(INTERRUPT, child, 0, 0);
        next(CASE("interrupted sleep %d", n), child);
        pt(CONT, child, 0, 0);
    }
    usleep(200000);
    pt(INTERRUPT, child, 0, 0);
    next("interrupted read", child);
    struct user_regs_struct r;
    pt(GETREGS, child, 0, (long)&r);
    show("it will restart", "%lld %lld", r.orig_rax, r.rax);
    pt(SETREGS, child, 0, (long)&r);
    pt(CONT, child, 0, 0);
    if (write(channel[1], "x", 1) != 1)
        perror("write");
    next("all went well", child);
}

// ---- ends ----

static void ends(void) {
    fflush(stdout);
    for (int kill_too = 0; kill_too < 2; kill_too++) {
        pid_t victim = child_that(sleeps), tracer = fork();
        if (tracer == 0) {
            pt(SEIZE, victim, 0, kill_too ? PTRACE_O_EXITKILL : 0);
            pt(INTERRUPT, victim, 0, 0);
            waitpid(victim, NULL, __WALL);
            _exit(0);
        }
        waitpid(tracer, NULL, 0);
        usleep(20000);
        int status = -1;
        show(CASE("tracee of a dead tracer, EXITKILL %d", kill_too), "%s", waitpid(victim, &status, WNOHANG) == victim ? word(status) : "lives");
        finish(victim);
    }
    // A parent and another tracer.
    int go[2], status = -1;
    if (pipe(go) != 0)
        perror("pipe");
    pid_t victim = child_that(sleeps);
    pid_t tracer = fork();
    if (tracer == 0) {
        char b;
        pt(SEIZE, victim, 0, 0);
        if (write(go[1], "r", 1) != 1 || read(channel[0], &b, 1) != 1)
            _exit(1);
        _exit(waitpid(victim, &status, 0) == victim && WIFSIGNALED(status) ? 5 : 6);
    }
    char b;
    if (read(go[0], &b, 1) != 1)
        perror("read");
    kill(victim, SIGTERM);
    usleep(20000);
    // SIGTERM stops it for its tracer, who does not look.
    kill(victim, SIGKILL);
    usleep(20000);
    RESULT("the parent before the tracer", waitpid(victim, &status, WNOHANG));
    if (write(channel[1], "x", 1) != 1)
        perror("write");
    int first = -1;
    waitpid(tracer, &first, 0);
    show("the tracer", "%s", word(first));
    next("and then the parent", victim);
    close(go[0]);
    close(go[1]);
    // SIGCHLD and waitid.
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGCHLD);
    sigprocmask(SIG_BLOCK, &set, NULL);
    while (sigtimedwait(&set, NULL, &(struct timespec){0, 0}) > 0)
        ;
    pid_t child = child_that(sleeps);
    pt(SEIZE, child, 0, 0);
    pt(INTERRUPT, child, 0, 0);
    siginfo_t i;
    int got = sigtimedwait(&set, &i, &(struct timespec){5, 0});
    show("SIGCHLD", "%d code %d status %d %s", got, i.si_code, i.si_status, i.si_pid == child ? "that child" : "another");
    for (int n = 0; n < 2; n++) {
        memset(&i, 0, sizeof i);
        RESULT(CASE("waitid %d", n), waitid(P_PID, child, &i, WSTOPPED | WNOHANG | (n == 0 ? WNOWAIT : 0)));
        show(CASE("it tells %d", n), "signo %d code %d status %x", i.si_signo, i.si_code, i.si_status);
    }
    RESULT("waitid when all is told", waitid(P_PID, child, &i, WSTOPPED | WNOHANG));
    finish(child);
    sigprocmask(SIG_UNBLOCK, &set, NULL);
}

static void is_told_to_trace(void) {
    RESULT("TRACEME", pt(TRACEME, 0, 0, 0));
    RESULT("TRACEME again", pt(TRACEME, 0, 0, 0));
    execl("/bin/true", "true", (char *)NULL);
}
static void programs(void) {
    pid_t child = child_that(is_told_to_trace);
    next("execve", child);
    show("its siginfo", "%s", siginfo(child, child));
    struct user_regs_struct r;
    pt(GETREGS, child, 0, (long)&r);
    show("registers of a new program", "rax %lld rbx %llx rflags %llx", r.rax, r.rbx, r.eflags);
    pt(CONT, child, 0, 0);
    next("the program's end", child);
    // Set-user-ID programs are no more than their tracer.
    fflush(stdout);
    pid_t tester = fork();
    if (tester == 0) {
        as_user(0);
        pid_t own = fork();
        if (own == 0) {
            pt(TRACEME, 0, 0, 0);
            execl("./suid", "suid", "report", (char *)NULL);
            _exit(1);
        }
        next("a traced set-user-ID program", own);
        pt(CONT, own, 0, 0);
        next("its end", own);
        _exit(0);
    }
    waitpid(tester, NULL, 0);
}

int main(int argc, char **argv) {
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (argc > 1 && strcmp(argv[1], "report") == 0) {
        show("ids of the traced program", "%d %d", getuid(), geteuid());
        return 0;
    }
    scratch();
    chmod(".", 0755);
    if (system("cp /proc/$PPID/exe suid && chmod 4755 suid") != 0)
        perror("cp");
    errors();
    permissions();
    calls(0);
    calls(1);
    signals();
    stepping();
    handlers();
    events(0, 0, "no options");
    events(0, PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK | PTRACE_O_TRACECLONE | PTRACE_O_TRACEEXEC | PTRACE_O_TRACEEXIT | PTRACE_O_TRACEVFORKDONE, "all events");
    events(0, PTRACE_O_TRACEFORK, "forks");
    events(0, PTRACE_O_TRACEEXEC, "programs");
    events(1, PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK | PTRACE_O_TRACECLONE | PTRACE_O_TRACEEXEC | PTRACE_O_TRACEEXIT, "seized");
    threads();
    attaching();
    interrupted_calls();
    ends();
    programs();
    (void)steps;
    return 0;
}

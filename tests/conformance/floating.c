// Floating-point state: control words and exceptions, and the registers of x87, SSE and AVX over signals, switches, forks and calls.
#include "check.h"
#include <fenv.h>
#include <float.h>
#include <math.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <setjmp.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <x86intrin.h>

static const int modes[] = {FE_TONEAREST, FE_DOWNWARD, FE_UPWARD, FE_TOWARDZERO};
static const int flags[] = {FE_INVALID, FE_DIVBYZERO, FE_OVERFLOW, FE_UNDERFLOW, FE_INEXACT};
static const char *names[] = {"invalid", "divbyzero", "overflow", "underflow", "inexact"};

static void test_environment(void) {
    fenv_t saved, held;
    for (int m = 0; m < 4; m++) {
        RESULT(CASE("fesetround %d", m), fesetround(modes[m]));
        CHECK(CASE("fegetround %d", m), fegetround() == modes[m]);
        volatile double third = 1.0, three = 3.0;
        volatile float f = 1.0f;
        volatile long double l = 1.0L;
        show(CASE("1/3 in mode %d", m), "%a %a %La", third / three, (double)(f / 3.0f), l / 3.0L);
        show(CASE("rint in mode %d", m), "%g %g %g %g", rint(2.5), rint(-2.5), rint(0.3), nearbyint(-0.7));
        show(CASE("lrint in mode %d", m), "%ld %lld", lrint(1.5), llrintl(-1.5L));
        sched_yield();
        getppid();
        CHECK(CASE("kept over calls %d", m), fegetround() == modes[m]);
    }
    fesetround(FE_TONEAREST);
    for (int i = 0; i < 5; i++) {
        feclearexcept(FE_ALL_EXCEPT);
        RESULT(CASE("raise %s", names[i]), feraiseexcept(flags[i]));
        CHECK(CASE("test %s", names[i]), fetestexcept(flags[i]) == flags[i]);
        RESULT(CASE("clear %s", names[i]), feclearexcept(flags[i]));
        CHECK(CASE("cleared %s", names[i]), fetestexcept(flags[i]) == 0);
    }
    feclearexcept(FE_ALL_EXCEPT);
    volatile double zero = 0.0, one = 1.0, big = DBL_MAX, small = DBL_MIN;
    volatile double r = one / zero;
    show("1/0", "%g %d", r, fetestexcept(FE_ALL_EXCEPT) == FE_DIVBYZERO);
    feclearexcept(FE_ALL_EXCEPT);
    r = zero / zero;
    show("0/0", "%d %d", isnan(r), fetestexcept(FE_ALL_EXCEPT) == FE_INVALID);
    feclearexcept(FE_ALL_EXCEPT);
    r = big * big;
    show("overflow", "%g %d", r, fetestexcept(FE_OVERFLOW) != 0);
    r = small * small;
    show("underflow", "%g %d", r, fetestexcept(FE_UNDERFLOW) != 0);
    feholdexcept(&held);
    fegetenv(&saved);
    fesetround(FE_UPWARD);
    fesetenv(&saved);
    CHECK("fesetenv", fegetround() == FE_TONEAREST);
    fesetenv(FE_DFL_ENV);
    show("mxcsr", "%x", _mm_getcsr());
    uint16_t cw;
    __asm__ volatile("fnstcw %0" : "=m"(cw));
    show("x87 control word", "%x", cw);
    _mm_setcsr(0x9fc0);
    getppid();
    sched_yield();
    show("mxcsr with flush to zero and denormals are zero", "%x", _mm_getcsr());
    volatile float tiny = FLT_MIN;
    show("flushed", "%g", tiny / 4);
    _mm_setcsr(0x1f80);
    show("denormal", "%g", tiny / 4);
}

static sigjmp_buf back;
static volatile int code, number;
static void *volatile where;

static void on_fpe(int signal, siginfo_t *info, void *context) {
    (void)context;
    number = signal, code = info->si_code, where = info->si_addr;
    siglongjmp(back, 1);
}

static void test_traps(void) {
    struct sigaction sa = {.sa_sigaction = on_fpe, .sa_flags = SA_SIGINFO};
    sigaction(SIGFPE, &sa, NULL);
    static volatile double zero = 0.0, one = 1.0, big = DBL_MAX, small = DBL_MIN, third = 3.0;
    for (int i = 0; i < 5; i++) {
        code = 0;
        if (sigsetjmp(back, 1) == 0) {
            feclearexcept(FE_ALL_EXCEPT);
            feenableexcept(flags[i]);
            volatile double r;
            switch (i) {
            case 0: r = zero / zero; break;
            case 1: r = one / zero; break;
            case 2: r = big * big; break;
            case 3: r = small / big; break;
            default: r = one / third;
            }
            (void)r;
            show(CASE("SSE trap %s", names[i]), "none");
        } else
            show(CASE("SSE trap %s", names[i]), "signal %d code %d address %d", number, code, where != NULL);
        fesetenv(FE_DFL_ENV);
    }
    for (int i = 0; i < 5; i++) {
        code = 0;
        if (sigsetjmp(back, 1) == 0) {
            uint16_t cw = 0x37f & ~(i == 0 ? 1 : i == 1 ? 4 : i == 2 ? 8 : i == 3 ? 16 : 32);
            long double a = i == 0 || i == 1 ? 0.0L : i == 2 ? LDBL_MAX : i == 3 ? LDBL_MIN : 3.0L;
            long double b = i == 0 ? 0.0L : i == 3 ? LDBL_MIN : i == 2 ? LDBL_MAX : 1.0L;
            volatile long double r;
            __asm__ volatile("fninit; fldcw %0" : : "m"(cw));
            if (i == 2 || i == 3)
                r = a * b;
            else
                __asm__ volatile("fldt %1; fldt %2; fdivp; fwait; fstpt %0" : "=m"(r) : "m"(b), "m"(a));
            __asm__ volatile("fwait");
            (void)r;
            show(CASE("x87 trap %s", names[i]), "none");
        } else
            show(CASE("x87 trap %s", names[i]), "signal %d code %d", number, code);
        __asm__ volatile("fninit");
        fesetenv(FE_DFL_ENV);
    }
    static volatile int n = 1, d = 0, least = INT32_MIN, minus = -1;
    if (sigsetjmp(back, 1) == 0)
        n = n / d;
    else
        show("integer division by zero", "signal %d code %d", number, code);
    if (sigsetjmp(back, 1) == 0)
        n = least / minus;
    else
        show("integer overflow", "signal %d code %d", number, code);
}

static volatile sig_atomic_t rounds;

__attribute__((target("avx"))) static void clobber(int signal) {
    (void)signal;
    // Everything that the interrupted code may have in registers.
    __asm__ volatile("vxorps %%ymm0,%%ymm0,%%ymm0; vpcmpeqd %%xmm1,%%xmm1,%%xmm1; vmovups %%ymm0,%%ymm15; vmovups %%ymm0,%%ymm7;"
                     "vmovups %%ymm0,%%ymm3; fninit; fldpi; fldl2e; fld1" ::: "xmm0", "xmm1", "xmm3", "xmm7", "xmm15", "memory");
    __asm__ volatile("fninit");
    fesetround(FE_UPWARD);
    _mm_setcsr(0x7f80);
    rounds++;
}

__attribute__((target("avx"))) static int registers_survive(int until) {
    uint32_t in[8][8] __attribute__((aligned(32))), out[8][8] __attribute__((aligned(32)));
    for (int i = 0; i < 64; i++)
        in[i / 8][i % 8] = i * 2654435761u + getpid() + syscall(SYS_gettid);
    int good = 1;
    while (rounds < until) {
        long count = 20000;
        // The registers are loaded once and stay over the loop.
        __asm__ volatile("vmovaps (%1),%%ymm0; vmovaps 32(%1),%%ymm1; vmovaps 64(%1),%%ymm3; vmovaps 96(%1),%%ymm7;"
                         "vmovaps 128(%1),%%ymm8; vmovaps 160(%1),%%ymm11; vmovaps 192(%1),%%ymm14; vmovaps 224(%1),%%ymm15;"
                         "fninit; fld1; fldpi;"
                         "1: dec %0; jnz 1b;"
                         "vmovaps %%ymm0,(%2); vmovaps %%ymm1,32(%2); vmovaps %%ymm3,64(%2); vmovaps %%ymm7,96(%2);"
                         "vmovaps %%ymm8,128(%2); vmovaps %%ymm11,160(%2); vmovaps %%ymm14,192(%2); vmovaps %%ymm15,224(%2)"
                         : "+r"(count)
                         : "r"(in), "r"(out)
                         : "xmm0", "xmm1", "xmm3", "xmm7", "xmm8", "xmm11", "xmm14", "xmm15", "memory");
        double one, pi;
        __asm__ volatile("fstpl %0; fstpl %1" : "=m"(pi), "=m"(one));
        good &= memcmp(in, out, sizeof in) == 0 && one == 1.0 && pi > 3.14159 && pi < 3.1416;
    }
    return good;
}

static void test_signals(void) {
    struct sigaction sa = {.sa_handler = clobber};
    sigaction(SIGALRM, &sa, NULL);
    struct itimerval t = {{0, 500}, {0, 500}}, off = {{0, 0}, {0, 0}};
    fesetenv(FE_DFL_ENV);
    if (__builtin_cpu_supports("avx")) {
        setitimer(ITIMER_REAL, &t, NULL);
        int good = registers_survive(200);
        setitimer(ITIMER_REAL, &off, NULL);
        CHECK("registers over 200 signals", good);
    }
    CHECK("rounding over signals", fegetround() == FE_TONEAREST);
    show("mxcsr over signals", "%x", _mm_getcsr());
}

static volatile int seen_round, seen_mxcsr, seen_cw;

static void look(int signal, siginfo_t *info, void *context) {
    (void)signal, (void)info;
    ucontext_t *u = context;
    uint16_t cw;
    __asm__ volatile("fnstcw %0" : "=m"(cw));
    seen_cw = cw, seen_mxcsr = _mm_getcsr();
    struct _fpstate *fp = (struct _fpstate *)u->uc_mcontext.fpregs;
    show("frame's control words", "%x %x", fp->cwd, fp->mxcsr);
    show("frame's xmm5", "%08x %08x", fp->_xmm[5].element[0], fp->_xmm[5].element[3]);
    // What the handler writes is what the program gets.
    fp->_xmm[5].element[0] = 0x12345678;
    fp->mxcsr = 0x5f80;
    fp->cwd = 0x77f;
}

static void test_frame(void) {
    struct sigaction sa = {.sa_sigaction = look, .sa_flags = SA_SIGINFO};
    sigaction(SIGUSR1, &sa, NULL);
    uint32_t value[4] = {0xaaaaaaaa, 0xbbbbbbbb, 0xcccccccc, 0xdddddddd}, after[4];
    _mm_setcsr(0x3f80);
    long pid = getpid(), result = SYS_kill;
    __asm__ volatile("movups (%[v]),%%xmm5; syscall; movups %%xmm5,(%[a])"
                     : "+a"(result)
                     : "D"(pid), "S"((long)SIGUSR1), [v] "r"(value), [a] "r"(after)
                     : "rcx", "r11", "xmm5", "memory");
    uint16_t cw;
    __asm__ volatile("fnstcw %0" : "=m"(cw));
    show("in the handler", "%x %x", seen_cw, seen_mxcsr);
    show("xmm5 after", "%08x %08x", after[0], after[3]);
    show("control words after", "%x %x", cw, _mm_getcsr());
    fesetenv(FE_DFL_ENV);
}

static volatile int stop;

__attribute__((target("avx"))) static void *spin(void *p) {
    long id = (long)p;
    fesetround(modes[id % 4]);
    double values[4] __attribute__((aligned(32))), back_[4] __attribute__((aligned(32)));
    long good = 1;
    for (int i = 0; i < 400; i++) {
        for (int j = 0; j < 4; j++)
            values[j] = id * 1000 + i * 4 + j;
        __asm__ volatile("vmovapd (%0),%%ymm9; vmovapd %%ymm9,%%ymm12" ::"r"(values) : "xmm9", "xmm12");
        syscall(SYS_sched_yield);
        __asm__ volatile("vmovapd %%ymm12,(%0)" ::"r"(back_) : "memory");
        (void)back_;
        long count = 3000;
        __asm__ volatile("vmovapd (%1),%%ymm9; 1: dec %0; jnz 1b; vmovapd %%ymm9,(%2)"
                         : "+r"(count)
                         : "r"(values), "r"(back_)
                         : "xmm9", "memory");
        good &= memcmp(values, back_, sizeof values) == 0 && fegetround() == modes[id % 4];
    }
    return (void *)good;
}

static void test_switches(void) {
    pthread_t t[6];
    if (__builtin_cpu_supports("avx"))
        for (int run = 0; run < 3; run++) {
            long good = 1;
            for (long i = 0; i < 6; i++)
                pthread_create(&t[i], NULL, spin, (void *)(i + run));
            for (int i = 0; i < 6; i++) {
                void *r;
                pthread_join(t[i], &r);
                good &= (long)r;
            }
            CHECK(CASE("six threads, run %d", run), good);
        }
    CHECK("mine is as before", fegetround() == FE_TONEAREST);
}

static void *inherits(void *p) {
    (void)p;
    seen_round = fegetround(), seen_mxcsr = _mm_getcsr();
    return NULL;
}

static void test_births(void) {
    fesetround(FE_DOWNWARD);
    _mm_setcsr(_mm_getcsr() | 0x8000);
    pthread_t t;
    pthread_create(&t, NULL, inherits, NULL);
    pthread_join(t, NULL);
    CHECK("a thread inherits the mode", seen_round == FE_DOWNWARD);
    show("and mxcsr", "%x", seen_mxcsr & 0xffc0);
    fflush(stdout);
    for (int m = 0; m < 4; m++) {
        fesetround(modes[m]);
        pid_t pid = fork();
        if (pid == 0)
            _exit(fegetround() == modes[m] ? 7 : 8);
        int status;
        waitpid(pid, &status, 0);
        show(CASE("a child inherits mode %d", m), "%d", WEXITSTATUS(status));
    }
    double x[2] = {1.25, -7.5}, y[2];
    pid_t pid;
    long nr = SYS_fork;
    __asm__ volatile("movupd (%1),%%xmm6; syscall; movupd %%xmm6,(%2)" : "+a"(nr) : "r"(x), "r"(y) : "rcx", "r11", "xmm6", "memory");
    pid = nr;
    if (pid == 0)
        syscall(SYS_exit_group, y[0] == 1.25 && y[1] == -7.5 ? 7 : 8);
    int status;
    waitpid(pid, &status, 0);
    show("a child inherits xmm6", "%d", WEXITSTATUS(status));
    CHECK("and the parent keeps it", y[0] == 1.25 && y[1] == -7.5);
    fesetenv(FE_DFL_ENV);
    fesetround(FE_UPWARD);
    pid = fork();
    if (pid == 0) {
        execl("/proc/self/exe", "floating", "after-exec", NULL);
        _exit(9);
    }
    waitpid(pid, &status, 0);
    show("exec starts afresh", "%d", WEXITSTATUS(status));
    fesetround(FE_TONEAREST);
}

int main(int argc, char **argv) {
    (void)argv;
    if (argc > 1) {
        uint16_t cw;
        __asm__ volatile("fnstcw %0" : "=m"(cw));
        return fegetround() == FE_TONEAREST && _mm_getcsr() == 0x1f80 && cw == 0x37f ? 7 : 8;
    }
    test_environment();
    test_traps();
    test_signals();
    test_frame();
    test_switches();
    test_births();
    return 0;
}

// Timers and clocks: setitimer, POSIX timers, clocks of processor time, sleeping with remainders, rusage and times.
#include "check.h"
#include <pthread.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/times.h>
#include <sys/wait.h>
#include <time.h>

static volatile sig_atomic_t got[65], last_code, last_value;
static void note(int signal, siginfo_t *info, void *context) {
    got[signal]++;
    last_code = info->si_code;
    last_value = info->si_value.sival_int;
}
static void catch(int signal, int flags) {
    struct sigaction a = {.sa_sigaction = note, .sa_flags = SA_SIGINFO | flags};
    sigaction(signal, &a, NULL);
}
static long long now(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return t.tv_sec * 1000000000ll + t.tv_nsec;
}
// Computes until a signal came, or three seconds are over.
static void compute(int signal) {
    long long end = now(CLOCK_MONOTONIC) + 3000000000ll;
    while (!got[signal] && now(CLOCK_MONOTONIC) < end)
        for (volatile int i = 0; i < 100000; i++)
            ;
}
static void wait_for(int signal) {
    for (int i = 0; i < 300 && !got[signal]; i++)
        usleep(10000);
}

static void intervals(void) {
    static const struct { const char *name; int which, signal; } kinds[] = {{"REAL", ITIMER_REAL, SIGALRM}, {"VIRTUAL", ITIMER_VIRTUAL, SIGVTALRM}, {"PROF", ITIMER_PROF, SIGPROF}};
    for (int k = 0; k < 3; k++) {
        struct itimerval t = {{0, 0}, {0, 20000}}, old;
        const char *n = kinds[k].name;
        int which = kinds[k].which, signal = kinds[k].signal;
        catch(signal, SA_RESTART);
        got[signal] = 0;
        RESULT(CASE("getitimer %s", n), getitimer(which, &old));
        show(CASE("it is not armed, %s", n), "%ld %ld", old.it_value.tv_sec, old.it_value.tv_usec);
        RESULT(CASE("setitimer %s", n), setitimer(which, &t, &old));
        compute(signal);
        show(CASE("it fired, %s", n), "%d code %d", got[signal], last_code);
        RESULT(CASE("getitimer then, %s", n), getitimer(which, &old));
        show(CASE("it is disarmed, %s", n), "%ld %ld", old.it_value.tv_sec, old.it_value.tv_usec);
        t.it_interval.tv_usec = 5000;
        got[signal] = 0;
        setitimer(which, &t, NULL);
        while (got[signal] < 4) {
            int before = got[signal];
            long long end = now(CLOCK_MONOTONIC) + 3000000000ll;
            while (got[signal] == before && now(CLOCK_MONOTONIC) < end)
                ;
            if (got[signal] == before)
                break;
        }
        CHECK(CASE("it fires again and again, %s", n), got[signal] >= 4);
        getitimer(which, &old);
        show(CASE("its interval, %s", n), "%ld", old.it_interval.tv_usec);
        CHECK(CASE("time is left, %s", n), old.it_value.tv_usec > 0 && old.it_value.tv_usec <= 24000);
        RESULT(CASE("disarm %s", n), setitimer(which, &(struct itimerval){{0, 0}, {0, 0}}, &old));
        t.it_value.tv_usec = 1000000;
        RESULT(CASE("a million microseconds, %s", n), setitimer(which, &t, NULL));
        t.it_value.tv_usec = -1;
        RESULT(CASE("negative, %s", n), setitimer(which, &t, NULL));
        t = (struct itimerval){{0, 0}, {1000, 0}};
        setitimer(which, &t, NULL);
        setitimer(which, &(struct itimerval){{0, 0}, {0, 0}}, &old);
        CHECK(CASE("the old value, %s", n), old.it_value.tv_sec >= 998 && old.it_value.tv_sec <= 1000);
        RESULT(CASE("getitimer to nowhere, %s", n), syscall(SYS_getitimer, which, 8L));
        // Not inherited.
        setitimer(which, &t, NULL);
        int status;
        pid_t child = fork();
        if (child == 0) {
            getitimer(which, &old);
            _exit(old.it_value.tv_sec != 0 || old.it_value.tv_usec != 0);
        }
        waitpid(child, &status, 0);
        show(CASE("a child has none, %s", n), "%x", status);
        setitimer(which, &(struct itimerval){{0, 0}, {0, 0}}, NULL);
    }
    RESULT("setitimer of a strange kind", setitimer(7, &(struct itimerval){{0, 0}, {0, 0}}, NULL));
    RESULT("getitimer of a strange kind", getitimer(7, &(struct itimerval){{0, 0}, {0, 0}}));
    RESULT("alarm", alarm(100));
    RESULT("alarm again", alarm(0));
    RESULT("alarm at last", alarm(0));
}

static void posix_timers(void) {
    static const struct { const char *name; clockid_t clock; int cpu; } clocks[] = {
        {"REALTIME", CLOCK_REALTIME, 0}, {"MONOTONIC", CLOCK_MONOTONIC, 0}, {"BOOTTIME", CLOCK_BOOTTIME, 0}, {"PROCESS", CLOCK_PROCESS_CPUTIME_ID, 1}, {"THREAD", CLOCK_THREAD_CPUTIME_ID, 1},
    };
    struct itimerspec t, old;
    timer_t id;
    for (int k = 0; k < 5; k++) {
        const char *n = clocks[k].name;
        struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1, .sigev_value.sival_int = 42 + k};
        catch(SIGUSR1, SA_RESTART);
        got[SIGUSR1] = 0;
        RESULT(CASE("timer_create %s", n), timer_create(clocks[k].clock, &event, &id));
        RESULT(CASE("timer_gettime %s", n), timer_gettime(id, &old));
        show(CASE("not armed, %s", n), "%ld %ld", (long)old.it_value.tv_sec, old.it_value.tv_nsec);
        t = (struct itimerspec){{0, 0}, {0, 10000000}};
        RESULT(CASE("timer_settime %s", n), timer_settime(id, 0, &t, NULL));
        if (clocks[k].cpu)
            compute(SIGUSR1);
        else
            wait_for(SIGUSR1);
        show(CASE("it fired, %s", n), "%d code %d value %d", got[SIGUSR1], last_code, last_value);
        RESULT(CASE("overruns, %s", n), timer_getoverrun(id));
        timer_gettime(id, &old);
        show(CASE("disarmed, %s", n), "%ld %ld", (long)old.it_value.tv_sec, old.it_value.tv_nsec);
        got[SIGUSR1] = 0;
        struct timespec at;
        clock_gettime(clocks[k].clock, &at);
        t.it_value = at;
        RESULT(CASE("a time that is past, %s", n), timer_settime(id, TIMER_ABSTIME, &t, NULL));
        if (clocks[k].cpu)
            compute(SIGUSR1);
        else
            wait_for(SIGUSR1);
        show(CASE("it fired at once, %s", n), "%d", got[SIGUSR1]);
        t = (struct itimerspec){{5, 0}, {1000, 0}};
        timer_settime(id, 0, &t, NULL);
        t = (struct itimerspec){{0, 0}, {0, 0}};
        RESULT(CASE("disarm, %s", n), timer_settime(id, 0, &t, &old));
        CHECK(CASE("the old value, %s", n), old.it_interval.tv_sec == 5 && old.it_value.tv_sec >= 998 && old.it_value.tv_sec <= 1000);
        t.it_value.tv_nsec = 1000000000;
        RESULT(CASE("a second of nanoseconds, %s", n), timer_settime(id, 0, &t, NULL));
        RESULT(CASE("timer_settime without a value, %s", n), syscall(SYS_timer_settime, id, 0, NULL, NULL));
        RESULT(CASE("timer_delete, %s", n), timer_delete(id));
    }
    struct sigevent none = {.sigev_notify = SIGEV_NONE};
    RESULT("SIGEV_NONE", timer_create(CLOCK_MONOTONIC, &none, &id));
    t = (struct itimerspec){{0, 0}, {100, 0}};
    RESULT("arm it", timer_settime(id, 0, &t, NULL));
    timer_gettime(id, &old);
    CHECK("it runs", old.it_value.tv_sec >= 98);
    timer_delete(id);
    int raw = 0;
    RESULT("timer_gettime of none", syscall(SYS_timer_gettime, 9999, &old));
    RESULT("timer_getoverrun of none", syscall(SYS_timer_getoverrun, 9999));
    RESULT("timer_delete of none", syscall(SYS_timer_delete, 9999));
    struct sigevent bad = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = 65};
    RESULT("a signal that is none", syscall(SYS_timer_create, CLOCK_MONOTONIC, &bad, &raw));
    bad = (struct sigevent){.sigev_notify = 77, .sigev_signo = SIGUSR1};
    RESULT("a strange notification", syscall(SYS_timer_create, CLOCK_MONOTONIC, &bad, &raw));
    RESULT("a strange clock", syscall(SYS_timer_create, 99, NULL, &raw));
    RESULT("a coarse clock", syscall(SYS_timer_create, CLOCK_MONOTONIC_COARSE, NULL, &raw));
    RESULT("a raw clock", syscall(SYS_timer_create, CLOCK_MONOTONIC_RAW, NULL, &raw));
    RESULT("to nowhere", syscall(SYS_timer_create, CLOCK_MONOTONIC, NULL, 8L));
    // Signals that are blocked count as overruns.
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    sigprocmask(SIG_BLOCK, &set, NULL);
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1};
    timer_create(CLOCK_MONOTONIC, &event, &id);
    t = (struct itimerspec){{0, 1000000}, {0, 1000000}};
    timer_settime(id, 0, &t, NULL);
    usleep(50000);
    siginfo_t info;
    RESULT("sigwaitinfo", sigwaitinfo(&set, &info));
    CHECK("overruns were counted", info.si_code == SI_TIMER && timer_getoverrun(id) >= 10);
    timer_delete(id);
    sigprocmask(SIG_UNBLOCK, &set, NULL);
}

static void clocks(void) {
    struct timespec t;
    static const clockid_t known[] = {0, 1, 2, 3, 4, 5, 6, 7, 11};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        RESULT(CASE("clock_gettime %d", known[i]), clock_gettime(known[i], &t));
        CHECK(CASE("it is normal, %d", known[i]), t.tv_sec >= 0 && t.tv_nsec >= 0 && t.tv_nsec < 1000000000);
        RESULT(CASE("clock_getres %d", known[i]), clock_getres(known[i], &t));
        CHECK(CASE("its resolution, %d", known[i]), t.tv_sec == 0 && t.tv_nsec > 0 && t.tv_nsec <= 10000000);
    }
    static const clockid_t unknown[] = {10, 12, 16, 99, -1};
    for (size_t i = 0; i < sizeof unknown / sizeof *unknown; i++) {
        RESULT(CASE("clock_gettime %d", unknown[i]), syscall(SYS_clock_gettime, unknown[i], &t));
        RESULT(CASE("clock_getres %d", unknown[i]), syscall(SYS_clock_getres, unknown[i], &t));
    }
    clockid_t clock;
    RESULT("clock_getcpuclockid of oneself", clock_getcpuclockid(0, &clock));
    RESULT("its time", clock_gettime(clock, &t));
    pid_t child = fork();
    if (child == 0)
        for (;;)
            pause();
    RESULT("clock_getcpuclockid of a child", clock_getcpuclockid(child, &clock));
    RESULT("the child's time", clock_gettime(clock, &t));
    CHECK("the child used little", t.tv_sec == 0);
    RESULT("set it", clock_settime(clock, &t));
    int status;
    kill(child, SIGKILL);
    waitpid(child, &status, 0);
    RESULT("the dead child's time", clock_gettime(clock, &t));
    RESULT("pthread_getcpuclockid", pthread_getcpuclockid(pthread_self(), &clock));
    RESULT("the thread's time", clock_gettime(clock, &t));
    // What computing costs.
    struct rusage before, after;
    struct tms tb, ta;
    getrusage(RUSAGE_SELF, &before);
    times(&tb);
    long long p = now(CLOCK_PROCESS_CPUTIME_ID), h = now(CLOCK_THREAD_CPUTIME_ID);
    while (now(CLOCK_PROCESS_CPUTIME_ID) - p < 60000000)
        ;
    CHECK("the thread's clock went on", now(CLOCK_THREAD_CPUTIME_ID) - h > 20000000);
    getrusage(RUSAGE_SELF, &after);
    times(&ta);
    long long used = (after.ru_utime.tv_sec - before.ru_utime.tv_sec + after.ru_stime.tv_sec - before.ru_stime.tv_sec) * 1000000ll + after.ru_utime.tv_usec - before.ru_utime.tv_usec + after.ru_stime.tv_usec - before.ru_stime.tv_usec;
    CHECK("getrusage shows it", used > 30000 && used < 2000000);
    CHECK("times shows it", ta.tms_utime + ta.tms_stime - tb.tms_utime - tb.tms_stime >= 3);
    long long q = now(CLOCK_PROCESS_CPUTIME_ID);
    usleep(50000);
    CHECK("sleeping costs nothing", now(CLOCK_PROCESS_CPUTIME_ID) - q < 20000000);
    RESULT("RUSAGE_THREAD", getrusage(RUSAGE_THREAD, &after));
    RESULT("RUSAGE_CHILDREN", getrusage(RUSAGE_CHILDREN, &before));
    child = fork();
    if (child == 0) {
        long long from = now(CLOCK_PROCESS_CPUTIME_ID);
        while (now(CLOCK_PROCESS_CPUTIME_ID) - from < 40000000)
            ;
        _exit(0);
    }
    struct rusage of;
    wait4(child, &status, 0, &of);
    CHECK("wait4 shows what the child used", of.ru_utime.tv_usec + of.ru_stime.tv_usec > 20000 || of.ru_utime.tv_sec > 0);
    getrusage(RUSAGE_CHILDREN, &after);
    CHECK("RUSAGE_CHILDREN grew", after.ru_utime.tv_usec + after.ru_stime.tv_usec + (after.ru_utime.tv_sec + after.ru_stime.tv_sec) * 1000000 > before.ru_utime.tv_usec + before.ru_stime.tv_usec + (before.ru_utime.tv_sec + before.ru_stime.tv_sec) * 1000000 + 20000);
    RESULT("getrusage of a strange kind", getrusage(7, &after));
    RESULT("getrusage to nowhere", syscall(SYS_getrusage, RUSAGE_SELF, 8L));
}

static void *interrupts(void *main_thread) {
    usleep(50000);
    pthread_kill(*(pthread_t *)main_thread, SIGUSR2);
    return NULL;
}

static void sleeping(void) {
    struct timespec t, rest;
    static const struct { long sec, nsec; } bad[] = {{-1, 0}, {0, -1}, {0, 1000000000}, {0, 2000000000}};
    for (size_t i = 0; i < 4; i++) {
        t = (struct timespec){bad[i].sec, bad[i].nsec};
        RESULT(CASE("nanosleep %ld %ld", bad[i].sec, bad[i].nsec), nanosleep(&t, NULL));
        RESULT(CASE("clock_nanosleep %ld %ld", bad[i].sec, bad[i].nsec), syscall(SYS_clock_nanosleep, CLOCK_MONOTONIC, 0, &t, NULL));
    }
    RESULT("nanosleep from nowhere", syscall(SYS_nanosleep, 8L, NULL));
    t = (struct timespec){0, 0};
    RESULT("nanosleep 0", nanosleep(&t, NULL));
    static const clockid_t clocks[] = {0, 1, 2, 3, 4, 5, 6, 7, 10, 11, 99};
    t = (struct timespec){0, 1};
    for (size_t i = 0; i < sizeof clocks / sizeof *clocks; i++)
        if (clocks[i] != 2)
            RESULT(CASE("clock_nanosleep on clock %d", clocks[i]), syscall(SYS_clock_nanosleep, clocks[i], 0, &t, NULL));
    t = (struct timespec){1, 0};
    RESULT("until a time that is past", syscall(SYS_clock_nanosleep, CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL));
    pthread_t self = pthread_self(), thread;
    for (int restart = 0; restart < 2; restart++) {
        catch(SIGUSR2, restart ? SA_RESTART : 0);
        for (int which = 0; which < 3; which++) {
            pthread_create(&thread, NULL, interrupts, &self);
            t = (struct timespec){10, 0};
            rest = (struct timespec){-5, -5};
            long r;
            if (which == 0)
                r = syscall(SYS_nanosleep, &t, &rest);
            else if (which == 1)
                r = syscall(SYS_clock_nanosleep, CLOCK_MONOTONIC, 0, &t, &rest);
            else {
                clock_gettime(CLOCK_MONOTONIC, &t);
                t.tv_sec += 10;
                r = syscall(SYS_clock_nanosleep, CLOCK_MONOTONIC, TIMER_ABSTIME, &t, &rest);
            }
            static const char *names[] = {"nanosleep", "clock_nanosleep", "clock_nanosleep until"};
            RESULT(CASE("%s, interrupted, SA_RESTART %d", names[which], restart), r);
            if (which < 2)
                CHECK(CASE("%s, what was left, SA_RESTART %d", names[which], restart), rest.tv_sec == 9 || (rest.tv_sec == 10 && rest.tv_nsec == 0));
            else
                show(CASE("%s, nothing is written, SA_RESTART %d", names[which], restart), "%ld %ld", (long)rest.tv_sec, rest.tv_nsec);
            pthread_join(thread, NULL);
        }
    }
    // A stop and SIGCONT do not end a sleep.
    int status;
    pid_t child = fork();
    if (child == 0) {
        setpgid(0, 0);
        t = (struct timespec){0, 200000000};
        _exit(nanosleep(&t, NULL) == 0 ? 0 : 1);
    }
    usleep(50000);
    kill(child, SIGSTOP);
    waitpid(child, &status, WUNTRACED);
    kill(child, SIGCONT);
    waitpid(child, &status, 0);
    show("a sleep that was stopped", "%x", status);
}

static void limits(void) {
    int status;
    pid_t child = fork();
    if (child == 0) {
        struct rlimit limit = {1, 2};
        signal(SIGXCPU, SIG_DFL);
        setrlimit(RLIMIT_CPU, &limit);
        for (;;)
            ;
    }
    waitpid(child, &status, 0);
    show("RLIMIT_CPU", "signal %d", WTERMSIG(status));
}

int main(void) {
    setvbuf(stdout, NULL, _IONBF, 0);
    intervals();
    posix_timers();
    clocks();
    sleeping();
    limits();
    return 0;
}

// futex(2) in all its operations, robust lists, futex_waitv, and the pthread objects that use them.
#include "check.h"
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>

static long futex(volatile uint32_t *word, int op, uint32_t value, const void *timeout, volatile uint32_t *word2,
                  uint32_t value3) {
    return syscall(SYS_futex, word, op, value, timeout, word2, value3);
}

static long futex_n(volatile uint32_t *word, int op, uint32_t value, unsigned long count, volatile uint32_t *word2,
                    uint32_t value3) {
    return syscall(SYS_futex, word, op, value, count, word2, value3);
}

static volatile uint32_t word, word2, asleep;

struct sleeper {
    pthread_t thread;
    volatile uint32_t *word;
    int op;
    uint32_t value, bitset;
    volatile int tid;
    long result;
    int error;
};

static void *sleep_on(void *p) {
    struct sleeper *s = p;
    s->tid = syscall(SYS_gettid);
    s->result = futex(s->word, s->op, s->value, NULL, NULL, s->bitset);
    s->error = s->result == -1 ? errno : 0;
    return NULL;
}

// Waits until a thread sleeps in the kernel.
static void until_asleep(volatile int *tid) {
    char path[64], line[512];
    for (int i = 0; i < 5000; i++) {
        if (*tid) {
            snprintf(path, sizeof path, "/proc/self/task/%d/stat", *tid);
            FILE *f = fopen(path, "r");
            char *got = f ? fgets(line, sizeof line, f) : NULL;
            if (f)
                fclose(f);
            char *paren = got ? strrchr(line, ')') : NULL;
            if (paren && paren[2] == 'S')
                return;
        }
        usleep(200);
    }
}

static void start(struct sleeper *s, volatile uint32_t *on, int op, uint32_t bitset) {
    *s = (struct sleeper){.word = on, .op = op, .value = *on, .bitset = bitset};
    pthread_create(&s->thread, NULL, sleep_on, s);
    until_asleep(&s->tid);
}

static const char *ended(struct sleeper *s) {
    static char text[64];
    pthread_join(s->thread, NULL);
    sprintf(text, "%ld %s", s->result, s->error ? strerrorname_np(s->error) : "-");
    return text;
}

static void test_arguments(void) {
    static const int flags[] = {0, FUTEX_PRIVATE_FLAG, FUTEX_CLOCK_REALTIME, FUTEX_PRIVATE_FLAG | FUTEX_CLOCK_REALTIME};
    struct timespec soon = {0, 1000000}, past = {1, 0}, bad = {0, 1000000000}, negative = {-1, 0};
    for (int f = 0; f < 4; f++)
        for (int op = 0; op <= 14; op++) {
            // A value that the word does not have: what would sleep fails at once.
            word = 1, word2 = 0;
            if (op == FUTEX_LOCK_PI || op == FUTEX_LOCK_PI2 || op == FUTEX_TRYLOCK_PI || op == FUTEX_FD || op == FUTEX_UNLOCK_PI)
                continue;
            RESULT(CASE("operation %d flags %d", op, flags[f]),
                   futex(&word, op | flags[f], 2, op == 0 || op == 9 ? NULL : (void *)1, &word2, 3));
        }
    RESULT("unknown operation", futex(&word, 99, 0, NULL, NULL, 0));
    volatile uint32_t *odd = (uint32_t *)((char *)&word + 2);
    for (int op = 0; op <= 10; op++)
        if (op != FUTEX_FD)
            RESULT(CASE("misaligned %d", op), futex(odd, op, 1, op == 0 || op == 9 ? NULL : (void *)1, &word2, 1));
    RESULT("wait on nothing", futex(NULL, FUTEX_WAIT, 1, NULL, NULL, 0));
    RESULT("wake nothing", futex(NULL, FUTEX_WAKE, 1, NULL, NULL, 0));
    RESULT("wake nothing private", futex(NULL, FUTEX_WAKE | FUTEX_PRIVATE_FLAG, 1, NULL, NULL, 0));
    word = 1;
    RESULT("wait, time-out", futex(&word, FUTEX_WAIT, 1, &soon, NULL, 0));
    RESULT("wait, bad time", futex(&word, FUTEX_WAIT, 1, &bad, NULL, 0));
    RESULT("wait, negative time", futex(&word, FUTEX_WAIT, 1, &negative, NULL, 0));
    RESULT("wait, bad time pointer", futex(&word, FUTEX_WAIT, 1, (void *)8, NULL, 0));
    RESULT("wait_bitset, past", futex(&word, FUTEX_WAIT_BITSET, 1, &past, NULL, ~0u));
    RESULT("wait_bitset, past, real time", futex(&word, FUTEX_WAIT_BITSET | FUTEX_CLOCK_REALTIME, 1, &past, NULL, ~0u));
    RESULT("wait_bitset 0", futex(&word, FUTEX_WAIT_BITSET, 1, NULL, NULL, 0));
    RESULT("wake_bitset 0", futex(&word, FUTEX_WAKE_BITSET, 1, NULL, NULL, 0));
    RESULT("requeue negative wake", futex_n(&word, FUTEX_REQUEUE, -1, 1, &word2, 0));
    RESULT("requeue negative move", futex_n(&word, FUTEX_REQUEUE, 1, (unsigned long)-1 & 0xffffffff, &word2, 0));
    RESULT("cmp_requeue wrong value", futex_n(&word, FUTEX_CMP_REQUEUE, 1, 1, &word2, 2));
    RESULT("cmp_requeue right value", futex_n(&word, FUTEX_CMP_REQUEUE, 1, 1, &word2, 1));
    const char *constant = "abcdefg";
    volatile uint32_t *readonly = (volatile uint32_t *)(((uintptr_t)constant + 3) & ~3ul);
    RESULT("wake in read-only memory", futex(readonly, FUTEX_WAKE, 1, NULL, NULL, 0));
    RESULT("wait in read-only memory", futex(readonly, FUTEX_WAIT, 1, NULL, NULL, 0));
}

static void test_wake(void) {
    struct sleeper s[5];
    for (int shared = 0; shared < 2; shared++) {
        int flag = shared ? 0 : FUTEX_PRIVATE_FLAG;
        word = 7;
        for (int i = 0; i < 5; i++)
            start(&s[i], &word, FUTEX_WAIT | flag, 0);
        RESULT(CASE("wake 2 shared %d", shared), futex(&word, FUTEX_WAKE | flag, 2, NULL, NULL, 0));
        RESULT(CASE("wake the other kind shared %d", shared),
               futex(&word, FUTEX_WAKE | (flag ^ FUTEX_PRIVATE_FLAG), 9, NULL, NULL, 0));
        RESULT(CASE("wake another word shared %d", shared), futex(&word2, FUTEX_WAKE | flag, 9, NULL, NULL, 0));
        RESULT(CASE("wake the rest shared %d", shared), futex(&word, FUTEX_WAKE | flag, INT_MAX, NULL, NULL, 0));
        RESULT(CASE("wake nobody shared %d", shared), futex(&word, FUTEX_WAKE | flag, INT_MAX, NULL, NULL, 0));
        for (int i = 0; i < 5; i++)
            show(CASE("sleeper %d shared %d", i, shared), "%s", ended(&s[i]));
    }
    // Bit sets.
    for (int i = 0; i < 4; i++)
        start(&s[i], &word, FUTEX_WAIT_BITSET | FUTEX_PRIVATE_FLAG, 1u << i | 16);
    RESULT("bit 5", futex(&word, FUTEX_WAKE_BITSET | FUTEX_PRIVATE_FLAG, 9, NULL, NULL, 32));
    RESULT("bit 1", futex(&word, FUTEX_WAKE_BITSET | FUTEX_PRIVATE_FLAG, 9, NULL, NULL, 2));
    show("bit 1 woke", "%s", ended(&s[1]));
    RESULT("bit 4, one", futex(&word, FUTEX_WAKE_BITSET | FUTEX_PRIVATE_FLAG, 1, NULL, NULL, 16));
    show("the oldest", "%s", ended(&s[0]));
    RESULT("the others", futex(&word, FUTEX_WAKE | FUTEX_PRIVATE_FLAG, 9, NULL, NULL, 0));
    ended(&s[2]), ended(&s[3]);
    // Requeue.
    for (int op = FUTEX_REQUEUE; op <= FUTEX_CMP_REQUEUE; op++) {
        for (int i = 0; i < 5; i++)
            start(&s[i], &word, FUTEX_WAIT | FUTEX_PRIVATE_FLAG, 0);
        RESULT(CASE("requeue %d", op), futex_n(&word, op | FUTEX_PRIVATE_FLAG, 1, 3, &word2, word));
        RESULT(CASE("left behind %d", op), futex(&word, FUTEX_WAKE | FUTEX_PRIVATE_FLAG, 9, NULL, NULL, 0));
        RESULT(CASE("moved one %d", op), futex(&word2, FUTEX_WAKE | FUTEX_PRIVATE_FLAG, 1, NULL, NULL, 0));
        RESULT(CASE("moved back %d", op), futex_n(&word2, op | FUTEX_PRIVATE_FLAG, 0, 9, &word, word2));
        RESULT(CASE("moved rest %d", op), futex(&word, FUTEX_WAKE | FUTEX_PRIVATE_FLAG, 9, NULL, NULL, 0));
        for (int i = 0; i < 5; i++)
            show(CASE("requeued %d by %d", i, op), "%s", ended(&s[i]));
    }
    // A word that changes while somebody sleeps on it.
    start(&s[0], &word, FUTEX_WAIT | FUTEX_PRIVATE_FLAG, 0);
    word = 99;
    RESULT("wake after a change", futex(&word, FUTEX_WAKE | FUTEX_PRIVATE_FLAG, 1, NULL, NULL, 0));
    show("slept on", "%s", ended(&s[0]));
    // Between processes.
    volatile uint32_t *shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0)
        _exit(futex(shared, FUTEX_WAIT, 0, NULL, NULL, 0) == 0 ? 7 : 8);
    int woken = 0, status;
    for (int i = 0; i < 5000 && woken == 0; i++, usleep(200))
        woken = futex(shared, FUTEX_WAKE, 1, NULL, NULL, 0);
    waitpid(pid, &status, 0);
    show("between processes", "%d %d", woken, WEXITSTATUS(status));
}

static void test_wake_op(void) {
    static const char *ops[] = {"set", "add", "or", "andn", "xor"};
    static const char *cmps[] = {"eq", "ne", "lt", "le", "gt", "ge"};
    for (int op = 0; op < 5; op++)
        for (int shift = 0; shift < 2; shift++) {
            word2 = 12;
            int encoded = FUTEX_OP(op | (shift ? FUTEX_OP_OPARG_SHIFT : 0), 3, 0, 0);
            RESULT(CASE("wake_op %s shift %d", ops[op], shift), futex_n(&word, FUTEX_WAKE_OP, 1, 1, &word2, encoded));
            show(CASE("word2 after %s shift %d", ops[op], shift), "%u", word2);
        }
    for (int cmp = 0; cmp < 6; cmp++)
        for (int old = 4; old <= 6; old++) {
            struct sleeper s;
            word2 = old;
            start(&s, &word2, FUTEX_WAIT, 0);
            int encoded = FUTEX_OP(FUTEX_OP_ADD, 0, cmp, 5);
            long n = futex_n(&word, FUTEX_WAKE_OP, 1, 1, &word2, encoded);
            show(CASE("%d %s 5", old, cmps[cmp]), "%ld", n);
            if (n == 0)
                futex(&word2, FUTEX_WAKE, 1, NULL, NULL, 0);
            ended(&s);
        }
    word2 = 0;
    RESULT("wake_op unknown operation", futex_n(&word, FUTEX_WAKE_OP, 1, 1, &word2, FUTEX_OP(7, 1, 0, 0)));
    RESULT("wake_op unknown comparison", futex_n(&word, FUTEX_WAKE_OP, 1, 1, &word2, FUTEX_OP(1, 1, 9, 0)));
    show("what it did", "%u", word2);
    RESULT("wake_op negative argument", futex_n(&word, FUTEX_WAKE_OP, 1, 1, &word2, FUTEX_OP(1, -1 & 0xfff, 0, 0)));
    RESULT("wake_op bad second word", futex_n(&word, FUTEX_WAKE_OP, 1, 1, (void *)8, FUTEX_OP(1, 1, 0, 0)));
}

static void *pi_holder(void *p) {
    volatile int *step = p;
    futex(&word, FUTEX_LOCK_PI, 0, NULL, NULL, 0);
    step[0] = syscall(SYS_gettid);
    while (!step[1])
        usleep(200);
    futex(&word, FUTEX_UNLOCK_PI, 0, NULL, NULL, 0);
    return NULL;
}

static void *pi_dies(void *p) {
    volatile int *step = p;
    futex(&word, FUTEX_LOCK_PI, 0, NULL, NULL, 0);
    step[0] = syscall(SYS_gettid);
    while (!step[1])
        usleep(200);
    return NULL;
}

static void test_pi(void) {
    uint32_t me = syscall(SYS_gettid);
    struct timespec past = {1, 0};
    word = 0;
    RESULT("lock_pi", futex(&word, FUTEX_LOCK_PI, 0, NULL, NULL, 0));
    CHECK("owner is me", word == me);
    RESULT("lock_pi again", futex(&word, FUTEX_LOCK_PI, 0, NULL, NULL, 0));
    RESULT("trylock_pi again", futex(&word, FUTEX_TRYLOCK_PI, 0, NULL, NULL, 0));
    RESULT("unlock_pi", futex(&word, FUTEX_UNLOCK_PI, 0, NULL, NULL, 0));
    show("free", "%u", word);
    RESULT("unlock_pi of a free lock", futex(&word, FUTEX_UNLOCK_PI, 0, NULL, NULL, 0));
    RESULT("trylock_pi", futex(&word, FUTEX_TRYLOCK_PI, 0, NULL, NULL, 0));
    RESULT("unlock_pi 2", futex(&word, FUTEX_UNLOCK_PI, 0, NULL, NULL, 0));
    RESULT("lock_pi2", futex(&word, FUTEX_LOCK_PI2, 0, NULL, NULL, 0));
    RESULT("unlock_pi 3", futex(&word, FUTEX_UNLOCK_PI, 0, NULL, NULL, 0));
    word = 0x3ffffff0;
    RESULT("lock_pi of nobody's", futex(&word, FUTEX_LOCK_PI, 0, NULL, NULL, 0));
    RESULT("trylock_pi of nobody's", futex(&word, FUTEX_TRYLOCK_PI, 0, NULL, NULL, 0));
    word = 0x3ffffff1;
    RESULT("unlock_pi of another's", futex(&word, FUTEX_UNLOCK_PI, 0, NULL, NULL, 0));
    word = 0;
    volatile int step[2] = {0, 0};
    pthread_t t;
    pthread_create(&t, NULL, pi_holder, (void *)step);
    while (!step[0])
        usleep(200);
    RESULT("trylock_pi while held", futex(&word, FUTEX_TRYLOCK_PI, 0, NULL, NULL, 0));
    RESULT("lock_pi, past", futex(&word, FUTEX_LOCK_PI, 0, &past, NULL, 0));
    RESULT("unlock_pi while held", futex(&word, FUTEX_UNLOCK_PI, 0, NULL, NULL, 0));
    step[1] = 1;
    RESULT("lock_pi waits", futex(&word, FUTEX_LOCK_PI, 0, NULL, NULL, 0));
    CHECK("mine now", (word & FUTEX_TID_MASK) == me);
    pthread_join(t, NULL);
    RESULT("unlock_pi 4", futex(&word, FUTEX_UNLOCK_PI, 0, NULL, NULL, 0));
    show("free again", "%u", word & FUTEX_TID_MASK);
    // An owner that dies while somebody waits.
    step[0] = step[1] = 0, word = 0;
    pthread_create(&t, NULL, pi_dies, (void *)step);
    while (!step[0])
        usleep(200);
    struct sleeper s = {.word = &word, .op = FUTEX_LOCK_PI};
    pthread_create(&s.thread, NULL, sleep_on, &s);
    until_asleep(&s.tid);
    step[1] = 1;
    pthread_join(t, NULL);
    show("lock of the dead", "%s", ended(&s));
    CHECK("owner died is told", (word & FUTEX_OWNER_DIED) != 0);
    // Mutexes and condition variables of the priority-inheritance kind.
    pthread_mutexattr_t a;
    pthread_mutex_t m;
    pthread_mutexattr_init(&a);
    RESULT("PRIO_INHERIT", pthread_mutexattr_setprotocol(&a, PTHREAD_PRIO_INHERIT));
    RESULT("init", pthread_mutex_init(&m, &a));
    RESULT("lock", pthread_mutex_lock(&m));
    show("trylock", "%s", strerrorname_np(pthread_mutex_trylock(&m)));
    RESULT("unlock", pthread_mutex_unlock(&m));
    pthread_mutex_destroy(&m);
}

static pthread_mutex_t pi_mutex;
static pthread_cond_t pi_cond = PTHREAD_COND_INITIALIZER;
static int turns, counter;

static void *pi_worker(void *p) {
    for (int i = 0; i < 300; i++) {
        pthread_mutex_lock(&pi_mutex);
        while (turns % 4 != (int)(intptr_t)p)
            pthread_cond_wait(&pi_cond, &pi_mutex);
        turns++;
        counter++;
        pthread_cond_broadcast(&pi_cond);
        pthread_mutex_unlock(&pi_mutex);
    }
    return NULL;
}

static volatile uint32_t cond_word, pi_word;

static void *requeue_waiter(void *p) {
    struct sleeper *s = p;
    s->tid = syscall(SYS_gettid);
    s->result = futex(&cond_word, FUTEX_WAIT_REQUEUE_PI | FUTEX_PRIVATE_FLAG, 0, NULL, &pi_word, 0);
    s->error = s->result == -1 ? errno : 0;
    if (s->result == 0) {
        s->value = (pi_word & FUTEX_TID_MASK) == (uint32_t)s->tid;
        futex(&pi_word, FUTEX_UNLOCK_PI | FUTEX_PRIVATE_FLAG, 0, NULL, NULL, 0);
    }
    return NULL;
}

static void test_requeue_pi(void) {
    pthread_mutexattr_t a;
    pthread_mutexattr_init(&a);
    pthread_mutexattr_setprotocol(&a, PTHREAD_PRIO_INHERIT);
    pthread_mutex_init(&pi_mutex, &a);
    pthread_t t[4];
    for (long i = 0; i < 4; i++)
        pthread_create(&t[i], NULL, pi_worker, (void *)i);
    for (int i = 0; i < 4; i++)
        pthread_join(t[i], NULL);
    show("turns under a PI mutex", "%d", counter);
    struct timespec past = {1, 0};
    cond_word = 0, pi_word = 0;
    RESULT("wait_requeue_pi wrong value", futex(&cond_word, FUTEX_WAIT_REQUEUE_PI, 1, NULL, &pi_word, 0));
    RESULT("wait_requeue_pi same word", futex(&cond_word, FUTEX_WAIT_REQUEUE_PI, 0, NULL, &cond_word, 0));
    RESULT("wait_requeue_pi past", futex(&cond_word, FUTEX_WAIT_REQUEUE_PI, 0, &past, &pi_word, 0));
    RESULT("cmp_requeue_pi wake 2", futex_n(&cond_word, FUTEX_CMP_REQUEUE_PI, 2, 1, &pi_word, 0));
    RESULT("cmp_requeue_pi same", futex_n(&cond_word, FUTEX_CMP_REQUEUE_PI, 1, 1, &cond_word, 0));
    RESULT("cmp_requeue_pi wrong value", futex_n(&cond_word, FUTEX_CMP_REQUEUE_PI, 1, 1, &pi_word, 5));
    RESULT("cmp_requeue_pi nobody", futex_n(&cond_word, FUTEX_CMP_REQUEUE_PI, 1, 1, &pi_word, 0));
    struct sleeper s[3];
    for (int i = 0; i < 3; i++) {
        s[i] = (struct sleeper){0};
        pthread_create(&s[i].thread, NULL, requeue_waiter, &s[i]);
        until_asleep(&s[i].tid);
    }
    futex(&pi_word, FUTEX_LOCK_PI | FUTEX_PRIVATE_FLAG, 0, NULL, NULL, 0);
    RESULT("cmp_requeue_pi all", futex_n(&cond_word, FUTEX_CMP_REQUEUE_PI | FUTEX_PRIVATE_FLAG, 1, INT_MAX, &pi_word, 0));
    CHECK("waiters are marked", (pi_word & FUTEX_WAITERS) != 0);
    RESULT("unlock_pi", futex(&pi_word, FUTEX_UNLOCK_PI | FUTEX_PRIVATE_FLAG, 0, NULL, NULL, 0));
    for (int i = 0; i < 3; i++) {
        show(CASE("requeued waiter %d", i), "%s", ended(&s[i]));
        show(CASE("it owned the lock %d", i), "%u", s[i].value);
    }
    s[0] = (struct sleeper){0};
    pthread_create(&s[0].thread, NULL, requeue_waiter, &s[0]);
    until_asleep(&s[0].tid);
    pi_word = 0;
    RESULT("cmp_requeue_pi takes a free lock", futex_n(&cond_word, FUTEX_CMP_REQUEUE_PI | FUTEX_PRIVATE_FLAG, 1, 0, &pi_word, 0));
    show("it got the lock", "%s", ended(&s[0]));
    s[0] = (struct sleeper){0};
    pthread_create(&s[0].thread, NULL, requeue_waiter, &s[0]);
    until_asleep(&s[0].tid);
    RESULT("plain wake of such a waiter", futex(&cond_word, FUTEX_WAKE | FUTEX_PRIVATE_FLAG, 1, NULL, NULL, 0));
    pi_word = 0;
    futex_n(&cond_word, FUTEX_CMP_REQUEUE_PI | FUTEX_PRIVATE_FLAG, 1, 0, &pi_word, 0);
    show("woken after all", "%s", ended(&s[0]));
}

static pthread_mutex_t robust;

static void *robust_dies(void *p) {
    (void)p;
    pthread_mutex_lock(&robust);
    return NULL;
}

static void test_robust(void) {
    struct robust_list_head *head = NULL;
    size_t len = 0;
    RESULT("get_robust_list", syscall(SYS_get_robust_list, 0, &head, &len));
    show("its length", "%zu %d", len, head != NULL);
    RESULT("get_robust_list of nobody", syscall(SYS_get_robust_list, 0x3ffffff, &head, &len));
    RESULT("set_robust_list wrong size", syscall(SYS_set_robust_list, head, 23));
    pthread_mutexattr_t a;
    pthread_mutexattr_init(&a);
    pthread_mutexattr_setrobust(&a, PTHREAD_MUTEX_ROBUST);
    for (int pi = 0; pi < 2; pi++) {
        pthread_mutexattr_setprotocol(&a, pi ? PTHREAD_PRIO_INHERIT : PTHREAD_PRIO_NONE);
        pthread_mutex_init(&robust, &a);
        pthread_t t;
        pthread_create(&t, NULL, robust_dies, NULL);
        pthread_join(t, NULL);
        int e = pthread_mutex_lock(&robust);
        show(CASE("lock after a death pi %d", pi), "%s", strerrorname_np(e));
        show(CASE("consistent pi %d", pi), "%d", pthread_mutex_consistent(&robust));
        show(CASE("unlock pi %d", pi), "%d", pthread_mutex_unlock(&robust));
        show(CASE("lock again pi %d", pi), "%d", pthread_mutex_lock(&robust));
        pthread_mutex_unlock(&robust);
        pthread_create(&t, NULL, robust_dies, NULL);
        pthread_join(t, NULL);
        e = pthread_mutex_lock(&robust);
        show(CASE("second death pi %d", pi), "%s", strerrorname_np(e));
        pthread_mutex_unlock(&robust);
        e = pthread_mutex_lock(&robust);
        show(CASE("not recoverable pi %d", pi), "%s", strerrorname_np(e));
        pthread_mutex_destroy(&robust);
    }
    // Shared between processes.
    pthread_mutex_t *m = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    pthread_mutexattr_setprotocol(&a, PTHREAD_PRIO_NONE);
    pthread_mutexattr_setpshared(&a, PTHREAD_PROCESS_SHARED);
    pthread_mutex_init(m, &a);
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        pthread_mutex_lock(m);
        raise(SIGKILL);
    }
    waitpid(pid, NULL, 0);
    show("lock of a killed process", "%s", strerrorname_np(pthread_mutex_lock(m)));
}

static void nothing(int signal) {
    (void)signal;
}

static void test_signals(void) {
    struct timespec forever = {100, 0};
    struct itimerval t = {{0, 2000}, {0, 2000}}, off = {{0, 0}, {0, 0}};
    struct sigaction sa = {.sa_handler = nothing};
    sigaction(SIGALRM, &sa, NULL);
    word = 0;
    setitimer(ITIMER_REAL, &t, NULL);
    RESULT("wait interrupted", futex(&word, FUTEX_WAIT, 0, NULL, NULL, 0));
    RESULT("timed wait interrupted", futex(&word, FUTEX_WAIT, 0, &forever, NULL, 0));
    sa.sa_flags = SA_RESTART;
    sigaction(SIGALRM, &sa, NULL);
    RESULT("timed wait interrupted in spite of SA_RESTART", futex(&word, FUTEX_WAIT, 0, &forever, NULL, 0));
    setitimer(ITIMER_REAL, &off, NULL);
}

struct waitv {
    uint64_t val, uaddr;
    uint32_t flags, reserved;
};

static void *wake_later(void *p) {
    usleep(5000);
    for (int i = 0; i < 5000 && futex(p, FUTEX_WAKE | FUTEX_PRIVATE_FLAG, 1, NULL, NULL, 0) == 0; i++)
        usleep(200);
    return NULL;
}

static void test_waitv(void) {
    static volatile uint32_t words[4];
    struct waitv v[4];
    struct timespec past = {1, 0};
    for (int i = 0; i < 4; i++)
        v[i] = (struct waitv){0, (uintptr_t)&words[i], 2 | FUTEX_PRIVATE_FLAG, 0};
    RESULT("waitv past", syscall(449, v, 4, 0, &past, CLOCK_MONOTONIC));
    RESULT("waitv past real", syscall(449, v, 4, 0, &past, CLOCK_REALTIME));
    RESULT("waitv bad clock", syscall(449, v, 4, 0, &past, CLOCK_BOOTTIME));
    RESULT("waitv none", syscall(449, v, 0, 0, NULL, 0));
    RESULT("waitv 129", syscall(449, v, 129, 0, NULL, 0));
    RESULT("waitv flags", syscall(449, v, 4, 1, NULL, 0));
    RESULT("waitv null", syscall(449, NULL, 4, 0, NULL, 0));
    v[2].val = 1;
    RESULT("waitv wrong value", syscall(449, v, 4, 0, NULL, 0));
    v[2].val = 0, v[1].flags = 0;
    RESULT("waitv no size", syscall(449, v, 4, 0, NULL, 0));
    v[1].flags = 2 | FUTEX_PRIVATE_FLAG, v[3].reserved = 1;
    RESULT("waitv reserved", syscall(449, v, 4, 0, NULL, 0));
    v[3].reserved = 0;
    for (int i = 0; i < 4; i++) {
        pthread_t t;
        pthread_create(&t, NULL, wake_later, (void *)&words[i]);
        RESULT(CASE("waitv woken by %d", i), syscall(449, v, 4, 0, NULL, 0));
        pthread_join(t, NULL);
    }
}

static sem_t sem;
static pthread_barrier_t barrier;
static pthread_rwlock_t rwlock = PTHREAD_RWLOCK_INITIALIZER;
static pthread_spinlock_t spin;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static volatile int once_count, total, rw_total;

static void init_once(void) {
    once_count++;
}

static void *worker(void *p) {
    (void)p;
    pthread_once(&once, init_once);
    for (int i = 0; i < 500; i++) {
        sem_wait(&sem);
        total++;
        sem_post(&sem);
        pthread_rwlock_wrlock(&rwlock);
        rw_total++;
        pthread_rwlock_unlock(&rwlock);
        pthread_rwlock_rdlock(&rwlock);
        pthread_rwlock_unlock(&rwlock);
        if (i % 100 == 0)
            pthread_barrier_wait(&barrier);
    }
    return NULL;
}

static void test_objects(void) {
    pthread_t t[4];
    sem_init(&sem, 0, 1);
    pthread_barrier_init(&barrier, NULL, 4);
    pthread_spin_init(&spin, 0);
    for (int i = 0; i < 4; i++)
        pthread_create(&t[i], NULL, worker, NULL);
    for (int i = 0; i < 4; i++)
        pthread_join(t[i], NULL);
    show("semaphore", "%d", total);
    show("rwlock", "%d", rw_total);
    show("once", "%d", once_count);
    struct timespec past = {1, 0};
    sem_wait(&sem);
    RESULT("sem_trywait", sem_trywait(&sem));
    RESULT("sem_timedwait", sem_timedwait(&sem, &past));
    pthread_rwlock_wrlock(&rwlock);
    show("rwlock timed", "%s", strerrorname_np(pthread_rwlock_timedrdlock(&rwlock, &past)));
}

int main(void) {
    test_arguments();
    test_wake();
    test_wake_op();
    test_pi();
    test_requeue_pi();
    test_robust();
    test_signals();
    test_waitv();
    test_objects();
    return 0;
}

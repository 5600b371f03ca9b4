// Threads: mutexes, conditions, barriers, thread-local storage, futexes, robust mutexes, extended state across switches and signals.
#define _GNU_SOURCE
#include <errno.h>
#include <immintrin.h>
#include <linux/futex.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t cond = PTHREAD_COND_INITIALIZER;
static pthread_barrier_t barrier;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static pthread_key_t key;
static sem_t semaphore;
static _Thread_local int local = 7;
static int counter, turn, ended, serial;
static void first(void) { counter += 1000000; }
static void destroy(void *value) { pthread_mutex_lock(&mutex); ended += (int)(intptr_t)value; pthread_mutex_unlock(&mutex); }

static void *worker(void *arg) {
    int me = (int)(intptr_t)arg;
    pthread_once(&once, first);
    pthread_setspecific(key, arg);
    local += me;
    for (int i = 0; i < 2000; i++) {
        pthread_mutex_lock(&mutex);
        counter++;
        pthread_mutex_unlock(&mutex);
    }
    if (pthread_barrier_wait(&barrier) == PTHREAD_BARRIER_SERIAL_THREAD) serial++;
    for (int round = 0; round < 20; round++) {
        pthread_mutex_lock(&mutex);
        while (turn % 4 != me) pthread_cond_wait(&cond, &mutex);
        turn++;
        pthread_cond_broadcast(&cond);
        pthread_mutex_unlock(&mutex);
    }
    sem_post(&semaphore);
    return (void *)(intptr_t)local;
}
static void basics(void) {
    pthread_t threads[4];
    pthread_key_create(&key, destroy), pthread_barrier_init(&barrier, NULL, 4), sem_init(&semaphore, 0, 0);
    for (int i = 0; i < 4; i++) pthread_create(&threads[i], NULL, worker, (void *)(intptr_t)i);
    long sum = 0;
    for (int i = 0; i < 4; i++) {
        void *result;
        pthread_join(threads[i], &result), sum += (intptr_t)result, sem_wait(&semaphore);
    }
    printf("basics %d %d %ld %d %d %d\n", counter, turn, sum, ended, serial, local);
}

static long futex(uint32_t *word, int op, uint32_t value, const struct timespec *time, uint32_t *other, uint32_t more) {
    long r = syscall(SYS_futex, word, op, value, time, other, more);
    return r == -1 ? -errno : r;
}
static uint32_t word, second;
static void *waiter(void *arg) { return (void *)(intptr_t)futex(&word, FUTEX_WAIT_PRIVATE, 0, NULL, NULL, 0); (void)arg; }
static void *bit_waiter(void *arg) { return (void *)futex(&word, FUTEX_WAIT_BITSET_PRIVATE, 0, NULL, NULL, (intptr_t)arg); }
static void futexes(void) {
    struct timespec short_time = {0, 30000000}, past = {1, 0}, bad = {0, 2000000000};
    printf("futex %ld %ld %ld", futex(&word, FUTEX_WAIT_PRIVATE, 1, NULL, NULL, 0), futex(&word, FUTEX_WAIT_PRIVATE, 0, &short_time, NULL, 0),
           futex(&word, FUTEX_WAKE_PRIVATE, 5, NULL, NULL, 0));
    printf(" %ld %ld %ld %ld", futex(&word, FUTEX_WAIT_BITSET_PRIVATE, 0, &past, NULL, ~0u), futex(&word, FUTEX_WAIT_BITSET | FUTEX_CLOCK_REALTIME, 0, &past, NULL, 1),
           futex(&word, FUTEX_WAIT_PRIVATE, 0, &bad, NULL, 0), futex(&word, FUTEX_WAIT_BITSET, 0, NULL, NULL, 0));
    printf(" %ld %ld\n", futex((uint32_t *)((char *)&word + 1), FUTEX_WAIT, 0, &short_time, NULL, 0), futex(&word, 99, 0, NULL, NULL, 0));
    pthread_t threads[4];
    for (int i = 0; i < 4; i++) pthread_create(&threads[i], NULL, i < 2 ? waiter : bit_waiter, (void *)(intptr_t)(1 << i));
    usleep(100000);
    printf("wake bits %ld", futex(&word, FUTEX_WAKE_BITSET_PRIVATE, 10, NULL, NULL, 8));  // wakes 8 and the plain waiters
    printf(" requeue %ld", futex(&word, FUTEX_CMP_REQUEUE_PRIVATE, 0, (void *)1, &second, 0));
    printf(" wrong %ld", futex(&word, FUTEX_CMP_REQUEUE_PRIVATE, 0, (void *)1, &second, 9));
    printf(" %ld %ld\n", futex(&word, FUTEX_WAKE_PRIVATE, 10, NULL, NULL, 0), futex(&second, FUTEX_WAKE_PRIVATE, 10, NULL, NULL, 0));
    for (int i = 0; i < 4; i++) pthread_join(threads[i], NULL);
    struct timespec start, end;
    clock_gettime(CLOCK_REALTIME, &start);
    pthread_mutex_lock(&mutex);
    end = start, end.tv_nsec += 50000000;
    if (end.tv_nsec >= 1000000000) end.tv_sec++, end.tv_nsec -= 1000000000;
    int r = pthread_cond_timedwait(&cond, &mutex, &end);
    pthread_mutex_unlock(&mutex);
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    long ms = (now.tv_sec - start.tv_sec) * 1000 + (now.tv_nsec - start.tv_nsec) / 1000000;
    printf("timed wait %s %d\n", strerror(r), ms >= 49 && ms < 2000);
}

static pthread_mutex_t robust;
static void *dies_with_lock(void *arg) { pthread_mutex_lock(&robust); return arg; }
static void robust_mutexes(void) {
    pthread_mutexattr_t a;
    pthread_mutexattr_init(&a), pthread_mutexattr_setrobust(&a, PTHREAD_MUTEX_ROBUST), pthread_mutex_init(&robust, &a);
    pthread_t t;
    pthread_create(&t, NULL, dies_with_lock, NULL), pthread_join(t, NULL);
    int r = pthread_mutex_lock(&robust);
    printf("robust %s", strerror(r));
    printf(" %d", pthread_mutex_consistent(&robust)), printf(" %d\n", pthread_mutex_unlock(&robust));
}

// Each thread keeps known values in every vector register, while signals spoil them and the others compute with theirs.
static volatile int storm;
static void spoil(int signal) {
    (void)signal;
    asm volatile("vxorps %%ymm0,%%ymm0,%%ymm0; vxorps %%ymm7,%%ymm7,%%ymm7; vxorps %%ymm15,%%ymm15,%%ymm15; fninit; fldz" ::: "xmm0", "xmm7", "xmm15");
    storm++;
}
__attribute__((noinline)) static int vectors_stay(uint64_t seed) {
    uint64_t in[4] = {seed, seed * 3, seed * 5, seed * 7}, out[4][4];
    double x87 = (double)seed, back;
    asm volatile("vmovdqu %[in], %%ymm0; vmovdqu %[in], %%ymm7; vmovdqu %[in], %%ymm8; vmovdqu %[in], %%ymm15; fldl %[x]; mov $200000, %%ecx;"
                 "1: dec %%ecx; jnz 1b;"
                 "vmovdqu %%ymm0, %[o0]; vmovdqu %%ymm7, %[o1]; vmovdqu %%ymm8, %[o2]; vmovdqu %%ymm15, %[o3]; fstpl %[b]; vzeroupper"
                 : [o0] "=m"(out[0]), [o1] "=m"(out[1]), [o2] "=m"(out[2]), [o3] "=m"(out[3]), [b] "=m"(back)
                 : [in] "m"(in), [x] "m"(x87)
                 : "xmm0", "xmm7", "xmm8", "xmm15", "rcx", "cc");
    for (int i = 0; i < 4; i++) if (memcmp(out[i], in, sizeof in)) return 0;
    return back == x87;
}
static void *compute(void *arg) {
    intptr_t wrong = 0;
    unsigned csr = 0x1f80 | ((uintptr_t)arg % 4) << 13, now;
    asm volatile("ldmxcsr %0" ::"m"(csr));
    for (int i = 0; i < 300; i++) {
        wrong += !vectors_stay(((uint64_t)(uintptr_t)arg + 1) * 1000003 + i);
        asm volatile("stmxcsr %0" : "=m"(now));
        wrong += (now & ~0x3f) != csr;
    }
    return (void *)wrong;
}
static void extended_state(void) {
    struct sigaction action = {.sa_handler = spoil, .sa_flags = SA_RESTART};
    sigaction(SIGALRM, &action, NULL);
    struct itimerval often = {{0, 2000}, {0, 2000}}, never = {{0, 0}, {0, 0}};
    setitimer(ITIMER_REAL, &often, NULL);
    pthread_t threads[4];
    intptr_t wrong = 0;
    for (int i = 0; i < 4; i++) pthread_create(&threads[i], NULL, compute, (void *)(intptr_t)i);
    for (int i = 0; i < 4; i++) {
        void *result;
        pthread_join(threads[i], &result), wrong += (intptr_t)result;
    }
    setitimer(ITIMER_REAL, &never, NULL);
    printf("extended state: %ld wrong, signals came: %d\n", wrong, storm > 5);
}

static void *exits_first(void *arg) { usleep(50000); printf("last thread\n"); return arg; }
int main(int argc, char **argv) {
    setvbuf(stdout, NULL, _IOLBF, 0);
    basics(), futexes(), robust_mutexes();
    if (__builtin_cpu_supports("avx")) extended_state();
    pthread_t t;
    pthread_create(&t, NULL, exits_first, NULL);
    (void)argc, (void)argv;
    pthread_exit(NULL);     // the process lives on until its last thread ends
}

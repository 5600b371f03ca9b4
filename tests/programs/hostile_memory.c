// Programs that ask for too much, or from several threads at once. One case per run, by name.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

enum { PAGE = 4096, PAGES = 16 };
static char *arena;
static volatile int stop;
static _Thread_local sigjmp_buf back;
static _Thread_local char alternate[65536];
static volatile long faults;

static void on_fault(int signal) { (void)signal; __sync_fetch_and_add(&faults, 1); siglongjmp(back, 1); }
static void catch_faults(void) {
    stack_t stack = {.ss_sp = alternate, .ss_size = sizeof alternate};
    sigaltstack(&stack, NULL);
    struct sigaction action = {.sa_handler = on_fault, .sa_flags = SA_ONSTACK};
    sigaction(SIGSEGV, &action, NULL), sigaction(SIGBUS, &action, NULL);
}
static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}
static void *touch_pages(void *arg) {
    volatile uintptr_t seed = (uintptr_t)arg;
    catch_faults();
    while (!stop) {
        if (sigsetjmp(back, 1) && stop) break;
        volatile char *p = arena + (seed++ * 2654435761u >> 7) % (PAGES * PAGE);
        if (seed & 1) *p = 1; else (void)*p;
    }
    return NULL;
}
static void *change_pages(void *arg) {
    const char *kind = arg;
    unsigned seed = kind[0];
    while (!stop) {
        seed = seed * 1103515245 + 12345;
        char *p = arena + (seed >> 16) % PAGES * PAGE;
        size_t length = PAGE * (1 + (seed >> 24) % 4);
        if (p + length > arena + PAGES * PAGE) length = arena + PAGES * PAGE - p;
        int which = kind[0] == 'm' ? 0 : kind[0] == 'p' ? 1 : kind[0] == 'a' ? 2 : (seed >> 12) % 4;
        if (which == 0) {
            munmap(p, length);
            mmap(p, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
        } else if (which == 1) {
            mprotect(p, length, seed & (1 << 13) ? PROT_READ | PROT_WRITE : seed & (1 << 14) ? PROT_READ : PROT_NONE);
        } else if (which == 2) {
            madvise(p, length, MADV_DONTNEED);
        } else {
            char *q = mremap(p, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, arena + PAGES * PAGE + 8 * PAGE);
            if (q != MAP_FAILED) mmap(p, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
        }
    }
    return NULL;
}
// race KIND CHANGERS READERS SECONDS
static int race(char **a) {
    arena = mmap(NULL, 64 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    int changers = atoi(a[1]), readers = atoi(a[2]), count = 0;
    pthread_t threads[16];
    for (int i = 0; i < changers; i++) pthread_create(&threads[count++], NULL, change_pages, a[0]);
    for (int i = 0; i < readers; i++) pthread_create(&threads[count++], NULL, touch_pages, (void *)(uintptr_t)(i + 1));
    double end = now() + atof(a[3]);
    while (now() < end) usleep(10000);
    stop = 1;
    for (int i = 0; i < count; i++) pthread_join(threads[i], NULL);
    for (int i = 0; i < PAGES; i++)   // what is mapped fresh is zero, and a neighbour was never hit
        if (mmap(arena + i * PAGE, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == MAP_FAILED || arena[i * PAGE]) return 4;
    for (int i = PAGES + 16; i < 64; i++) if (arena[i * PAGE]) return 5;
    puts("done");
    return 0;
}
static void *sleeper(void *arg) { pause(); return arg; }
static int thread_bomb(void) {
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, 262144);
    int n = 0, error = 0;
    pthread_t t;
    while (n < 100000 && !(error = pthread_create(&t, &attributes, sleeper, NULL))) n++;
    printf("%s after %d\n", error ? strerror(error) : "no limit", n);
    return n < 32 || n >= 100000;
}
static void *born(void *arg) { return arg; }
static int thread_churn(int count) {
    for (int i = 0; i < count; i++) {
        pthread_t t;
        void *result;
        if (pthread_create(&t, NULL, born, (void *)(uintptr_t)i) || pthread_join(t, &result) || result != (void *)(uintptr_t)i) return 6;
    }
    puts("done");
    return 0;
}
static int mmap_bomb(int kind) {
    int n = 0;
    char *last = NULL;
    if (kind == 0)      // huge reservations, until the address space ends
        while (n < 1 << 20 && mmap(NULL, 1UL << 40, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0) != MAP_FAILED) n++;
    if (kind == 1)      // many small mappings that cannot be merged
        while (n < 10000 && (last = mmap(NULL, PAGE, n & 1 ? PROT_READ : PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)) != MAP_FAILED) n++;
    if (kind == 2) {    // holes in one large mapping
        char *p = mmap(NULL, 1UL << 32, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        while (n < 1 << 19 && !mprotect(p + 2L * n * PAGE, PAGE, PROT_NONE)) n++;
    }
    printf("%s %d\n", strerror(errno), n > 20 && n < 1 << 19);
    return 0;
}
static int memory_bomb(void) {
    for (;;) {
        char *p = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (p == MAP_FAILED) { printf("%s\n", strerror(errno)); return 7; }
        for (int i = 0; i < 1 << 20; i += PAGE) p[i] = 1;
    }
}
static int file_bomb(void) {
    int fd = open("/tmp/coppice-bomb", O_CREAT | O_RDWR, 0600);
    static char block[1 << 20];
    memset(block, 1, sizeof block);
    for (long n = 0; n < 100000; n++)
        if (write(fd, block, sizeof block) < 0) { printf("%s\n", strerror(errno)); return 7; }
    return 8;
}
static int fd_bomb(void) {
    struct rlimit limit = {512, 512};
    setrlimit(RLIMIT_NOFILE, &limit);
    int n = 0, ends[2];
    while (n < 1 << 20 && open("/dev/null", O_RDONLY) >= 0) n++;
    printf("%s %d", strerror(errno), n > 400);
    printf(" %d %d\n", pipe(ends), dup(0));
    close(100);
    printf("%d\n", dup(0));
    return 0;
}
static int recurse(int n) { volatile char frame[512]; frame[n % 512] = n; return recurse(n + 1) + frame[0]; }
static void overflowed(int signal) { if (write(1, signal == SIGSEGV ? "overflow\n" : "other\n", signal == SIGSEGV ? 9 : 6) < 0) _exit(9); _exit(10); }
static int overflow_caught(void) {
    stack_t stack = {.ss_sp = alternate, .ss_size = sizeof alternate};
    sigaltstack(&stack, NULL);
    struct sigaction action = {.sa_handler = overflowed, .sa_flags = SA_ONSTACK};
    sigaction(SIGSEGV, &action, NULL);
    return recurse(0);
}
static int exec_self(char **argv) {
    int left = atoi(argv[2]);
    if (!left) { printf("%s %d\n", argv[3], open("/dev/null", O_RDONLY)); return 0; }
    char next[20];
    snprintf(next, sizeof next, "%d", left - 1);
    pthread_t t;
    pthread_create(&t, NULL, sleeper, NULL);
    open("/dev/null", O_RDONLY | O_CLOEXEC);
    signal(SIGUSR1, overflowed);
    char *args[] = {argv[0], "exec", next, argv[3], NULL}, *env[] = {"A=b", NULL};
    execve("/proc/self/exe", args, env);
    perror("execve");
    return 11;
}
static int exec_big(void) {
    char *long_one = malloc(200000);
    memset(long_one, 'x', 199999), long_one[199999] = 0;
    char *args[] = {"x", long_one, NULL}, *none[] = {NULL};
    printf("%d", execve("/proc/self/exe", args, none)), printf(" %s\n", strerror(errno));
    static char *many[100001];
    for (int i = 0; i < 100000; i++) many[i] = "0123456789012345678901234567890123456789";
    many[100000] = NULL;
    printf("%d", execve("/proc/self/exe", many, none)), printf(" %s\n", strerror(errno));
    printf("%d", execve("/proc/self/exe", (char **)8, none)), printf(" %s\n", strerror(errno));
    printf("%d", execve((char *)8, none, none)), printf(" %s\n", strerror(errno));
    printf("%d", execve("/dev", none, none)), printf(" %s\n", strerror(errno));
    printf("%d", execve("/etc/passwd", none, none)), printf(" %s\n", strerror(errno));
    return 0;
}

int main(int argc, char **argv) {
    setvbuf(stdout, NULL, _IOLBF, 0);
    const char *name = argc > 1 ? argv[1] : "";
    if (!strcmp(name, "race") && argc == 6) return race(argv + 2);
    if (!strcmp(name, "thread-bomb")) return thread_bomb();
    if (!strcmp(name, "thread-churn")) return thread_churn(atoi(argv[2]));
    if (!strcmp(name, "mmap-bomb")) return mmap_bomb(atoi(argv[2]));
    if (!strcmp(name, "memory-bomb")) return memory_bomb();
    if (!strcmp(name, "file-bomb")) return file_bomb();
    if (!strcmp(name, "fd-bomb")) return fd_bomb();
    if (!strcmp(name, "recurse")) return recurse(0);
    if (!strcmp(name, "recurse-caught")) return overflow_caught();
    if (!strcmp(name, "exec")) return exec_self(argv);
    if (!strcmp(name, "exec-big")) return exec_big();
    if (!strcmp(name, "arguments")) {
        unsigned long bytes = 0;
        for (int i = 0; i < argc; i++) bytes += strlen(argv[i]);
        printf("%d %lu\n", argc, bytes);
        return 0;
    }
    return 98;
}

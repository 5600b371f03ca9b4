/* The first thread sleeps for ever, so that its processor does; the second one then takes more memory than the limit, and says so when
 * nobody stops it. */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static volatile int go;

static void *take(void *unused)
{
    (void)unused;
    while (!go)
        ;
    for (int i = 0; i < 500; i++) {
        char *m = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (m == MAP_FAILED)
            _exit(3);
        memset(m, 1, 1 << 20);
    }
    puts("took 500 MiB");
    fflush(stdout);
    _exit(0);
}

int main(void)
{
    pthread_t thread;
    if (pthread_create(&thread, NULL, take, NULL) != 0)
        return 2;
    /* Long enough for a second processor to be started. */
    for (volatile long i = 0; i < 200000000; i++)
        ;
    go = 1;
    pause();
    return 0;
}

// Makes system calls as its input tells it, and prints for each the errno, or `ok`. A line of input is a number and six arguments,
// each a number or one of the words below. Nothing blocks for long: a signal without SA_RESTART comes every 100 ms.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <unistd.h>

enum { PAGE = 4096 };
static char *buffer, *read_only, *unmapped, *last;
static char alternate[65536];

static void nothing(int signal) { (void)signal; }
static void died(int signal) {
    char text[] = "signal 00\n";
    text[7] += signal / 10, text[8] += signal % 10;
    if (write(201, text, sizeof text - 1) < 0) _exit(97);
    _exit(0);
}

static long argument(const char *word) {
    if (!strcmp(word, "buffer")) return (long)buffer;
    if (!strcmp(word, "read-only")) return (long)read_only;
    if (!strcmp(word, "unmapped")) return (long)unmapped;
    if (!strcmp(word, "last")) return (long)last;               // the last byte of a mapping; nothing follows
    if (!strcmp(word, "path")) return (long)strcpy(buffer + 64, "no-such-file");
    if (!strcmp(word, "fd")) return 100;
    if (!strcmp(word, "socket")) return 102;
    return (long)strtoull(word, NULL, 0);
}

int main(void) {
    // At an address of our own: how much of the address space lies above it decides what a huge length means.
    buffer = mmap((void *)0x10000000, 5 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    if (buffer == MAP_FAILED) return 94;
    struct rlimit files = {1024, 1024};
    setrlimit(RLIMIT_NOFILE, &files);
    munmap(buffer + 2 * PAGE, PAGE), munmap(buffer + 4 * PAGE, PAGE);
    unmapped = buffer + 2 * PAGE, read_only = buffer + 3 * PAGE, last = buffer + 4 * PAGE - 1;
    mprotect(read_only, PAGE, PROT_READ);
    dup2(0, 200), dup2(1, 201), close(0), close(1);
    FILE *in = fdopen(200, "r");
    stack_t stack = {.ss_sp = alternate, .ss_size = sizeof alternate};
    sigset_t none;
    sigemptyset(&none);
    char word[7][40];
    while (fscanf(in, "%39s %39s %39s %39s %39s %39s %39s", word[0], word[1], word[2], word[3], word[4], word[5], word[6]) == 7) {
        // What the last call may have spoilt.
        int ends[2];
        syscall(SYS_rt_sigprocmask, SIG_SETMASK, &none, NULL, 8);
        sigaltstack(&stack, NULL);
        struct sigaction tick = {.sa_handler = nothing, .sa_flags = SA_ONSTACK}, fatal = {.sa_handler = died, .sa_flags = SA_ONSTACK};
        sigaction(SIGALRM, &tick, NULL), sigaction(SIGPIPE, &tick, NULL);
        sigaction(SIGSEGV, &fatal, NULL), sigaction(SIGBUS, &fatal, NULL);
        struct itimerval often = {.it_interval = {0, 100000}, .it_value = {0, 100000}};
        memset(buffer, 0, 2 * PAGE);
        if (pipe2(ends, O_NONBLOCK) == 0) {     // 100 can be read from, and holds a page
            if (write(ends[1], buffer, PAGE) != PAGE) _exit(96);
            dup2(ends[0], 100), dup2(ends[1], 101), close(ends[0]), close(ends[1]);
        }
        if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends) == 0)
            dup2(ends[0], 102), dup2(ends[1], 103), close(ends[0]), close(ends[1]);
        long a[7];
        for (int i = 0; i < 7; i++) a[i] = argument(word[i]);
        setitimer(ITIMER_REAL, &often, NULL);
        long result = syscall(a[0], a[1], a[2], a[3], a[4], a[5], a[6]);
        int error = errno;
        often.it_value.tv_usec = often.it_interval.tv_usec = 0;
        setitimer(ITIMER_REAL, &often, NULL);
        char line[64];
        int n = result == -1 ? snprintf(line, sizeof line, "%s\n", strerrorname_np(error) ?: "unknown") : snprintf(line, sizeof line, "ok\n");
        if (write(201, line, n) != n) _exit(95);
    }
    return 0;
}

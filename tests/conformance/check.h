// What the conformance programs share. A program prints one line per assertion: what it did and what it saw. The runner (tests/conformance.rs)
// runs it on the host first and in the sandbox then, and compares the lines; so nothing that differs between two runs on one host (pids, addresses,
// times) may be printed. Lines that are known to differ, with the reason, are listed in known.txt.
#ifndef CONFORMANCE_CHECK_H
#define CONFORMANCE_CHECK_H
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

// Whatever the tests were started with (nohup, nice, a shell's trap) is not what they are about.
__attribute__((constructor)) static void start_afresh(void) {
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    for (int number = 1; number < 65; number++)
        signal(number, SIG_DFL);
}

// Prints "name: value".
__attribute__((format(printf, 2, 3), unused)) static void show(const char *name, const char *format, ...) {
    char line[4096];
    va_list args;
    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    printf("%s: %s\n", name, line);
    fflush(stdout);
}

// An assertion that must hold: prints "name: ok", or "name: FAILED at line N".
#define CHECK(name, condition) ((condition) ? show(name, "ok") : show(name, "FAILED at line %d", __LINE__))

// A call whose result and errno are the observation: prints "name: 0" or "name: -1 ENOENT". The value is the call's result.
#define RESULT(name, call) result_of(name, (errno = 0, (long)(call)))

__attribute__((unused)) static long result_of(const char *name, long result) {
    int error = errno;
    if (result == -1)
        show(name, "-1 %s", error ? strerrorname_np(error) : "(no errno)");
    else
        show(name, "%ld", result);
    errno = error;
    return result;
}

// A call that has to succeed with a result nobody can foresee (a descriptor, a pid, an address): prints "name: ok" or "name: -1 ENOENT".
#define WORKS(name, call) works_of(name, (errno = 0, (long)(call)))

__attribute__((unused)) static long works_of(const char *name, long result) {
    if (result == -1)
        return result_of(name, result);
    show(name, "ok");
    return result;
}

// The name of a case made from parts: CHECK(CASE("seek %d", i), ...). Valid until the next four uses.
__attribute__((format(printf, 1, 2), unused)) static const char *CASE(const char *format, ...) {
    static char names[4][256];
    static int next;
    char *name = names[next++ % 4];
    va_list args;
    va_start(args, format);
    vsnprintf(name, 256, format, args);
    va_end(args);
    return name;
}

// A fresh directory that the program works in and that is removed, with all in it, when it exits.
__attribute__((unused)) static char scratch_path[64];

__attribute__((unused)) static pid_t scratch_owner;

__attribute__((unused)) static void scratch_remove(void) {
    char command[96];
    if (getpid() != scratch_owner || chdir("/") != 0)
        return;
    snprintf(command, sizeof command, "rm -rf %s", scratch_path);
    if (system(command) != 0)
        fprintf(stderr, "cannot remove %s\n", scratch_path);
}

__attribute__((unused)) static void scratch(void) {
    umask(022);
    strcpy(scratch_path, "/tmp/conformance-XXXXXX");
    if (!mkdtemp(scratch_path) || chdir(scratch_path) != 0) {
        perror(scratch_path);
        exit(99);
    }
    scratch_owner = getpid();
    atexit(scratch_remove);
}
#endif

// Executes programs of system calls and tells what each call gave, without anything that differs from run to run (addresses, inode and
// port numbers, times). tests/differential.rs writes the programs and compares what this prints on the host and in the sandbox.
//
// Input, one line each:  P            a new program starts: a process of its own in a fresh directory
//                        NAME RESULT NUMBER ARGUMENT...   one call; see `argument` for how arguments are written
//                        !WORD ...                        what is no plain call: see `special`
// RESULT is "." (print the number), ">N" (a descriptor: print it, keep it in slot N), "h" (print only whether it failed).
#define _GNU_SOURCE
#include "interpreter.h"

long slots[SLOTS];
int ports[SLOTS], pids[SLOTS];
char *tokens[16];
int token_count;
char buffers[8][BUFFER];
long parsed[8];
static char *all_lines[MAX_LINES], **line_at;
static int lines;
static struct log *out;
static volatile int pending_signals[16], signal_count;
sigjmp_buf recover;
volatile int recovering;
char scratch_name[64];

void say(const char *format, ...) {
    va_list list;
    va_start(list, format);
    if (out->used < LOG - 4096) out->used += vsnprintf(out->text + out->used, 4096, format, list);
    va_end(list);
}

static void on_signal(int number, siginfo_t *info, void *context) {
    (void)context;
    if (recovering && (number == SIGSEGV || number == SIGBUS)) {
        recovering = 0;
        say(" signal %d code %d", number, info->si_code);
        siglongjmp(recover, 1);
    }
    if (number == SIGSEGV || number == SIGBUS) _exit(99);
    if (signal_count < 16) pending_signals[signal_count++] = number | info->si_code << 8;
}

// The signals whose handlers ran during the call. Several at once have no order that programs may rely on but the kernel's.
static void say_signals(void) {
    for (int i = 0; i < signal_count; i++) say(" handled %d/%d", pending_signals[i] & 255, pending_signals[i] >> 8);
    signal_count = 0;
}

static void plain(void) {
    long number = atol(tokens[2]), a[6] = {0};
    for (int i = 3; i < token_count && i < 9; i++) a[i - 3] = argument(tokens[i], i - 3);
    errno = 0;
    long result = syscall(number, a[0], a[1], a[2], a[3], a[4], a[5]);
    int error = errno;
    if (result == -1) say(" = -1 errno %d", error);
    else if (tokens[1][0] == 'h') say(" = ok");
    else say(" = %ld", result);
    for (int i = 3; i < token_count && i < 9; i++) show(tokens[i], i - 3, result);
    if (tokens[1][0] == '>' && result >= 0) slots[atoi(tokens[1] + 1) % SLOTS] = result;
}

static void run(int from, int to);

static int special(int at, int to) {
    char *word = tokens[0] + 1;
    long x = token_count > 1 ? atol(tokens[1]) : 0, y = token_count > 2 ? atol(tokens[2]) : 0;
    if (!strcmp(word, "fork")) { // !fork CALLS CODE: a child makes the next calls and exits; it is waited for
        int end = at + 1 + x < to ? at + 1 + (int)x : to;
        pid_t pid = fork();
        if (pid == 0) {
            pids[SELF] = getpid();
            say("\n");
            run(at + 1, end);
            _exit((int)y);
        }
        int status = -1;
        while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {}
        say("%d fork: status %x", at, status);
        return end - 1;
    }
    if (!strcmp(word, "spawn")) { // !spawn SLOT: a child that sleeps until a signal ends it
        pid_t pid = fork();
        if (pid == 0) {
            for (;;) pause();
        }
        pids[x % SLOTS] = pid;
        say(" spawned");
    } else if (!strcmp(word, "reap")) { // !reap SLOT SIGNAL: ends that child
        int status = -1;
        pid_t pid = pids[x % SLOTS];
        if (pid <= 0) return at;
        int sent = kill(pid, (int)y);
        kill(pid, SIGKILL);
        siginfo_t info = {0};
        int first = waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT);
        pid_t got = wait4(pid, &status, 0, NULL);
        say(" kill %d waitid %d code %d status %d wait4 %d %x", sent, first, info.si_code, info.si_status, got == pid, status);
        pids[x % SLOTS] = 0;
    } else if (!strcmp(word, "touch")) { // !touch ADDRESS VALUE: reads a byte (-1) or writes one
        volatile unsigned char *p = (void *)argument(tokens[1], 0);
        recovering = 1;
        if (sigsetjmp(recover, 1) == 0) {
            if (y < 0) say(" byte %d", *p);
            else *p = (unsigned char)y;
        }
        recovering = 0;
    } else if (!strcmp(word, "handle")) { // !handle SIGNAL HOW FLAGS
        struct sigaction act = {.sa_sigaction = on_signal, .sa_flags = SA_SIGINFO | (int)(token_count > 3 ? atol(tokens[3]) : 0)};
        if (y == 0) act.sa_handler = SIG_DFL;
        if (y == 1) act.sa_handler = SIG_IGN;
        say(" = %d", sigaction((int)x, &act, NULL));
    } else if (!strcmp(word, "port")) { // !port SLOT N: keeps the port that a socket is bound to
        struct sockaddr_storage a = {0};
        socklen_t n = sizeof a;
        int r = getsockname((int)slots[x % SLOTS], (void *)&a, &n);
        ports[y % SLOTS] = r == 0 && a.ss_family != AF_UNIX ? ((struct sockaddr_in *)&a)->sin_port : 0;
        say(" = %d family %d", r, a.ss_family);
    } else if (!strcmp(word, "sendmsg")) {
        send_message((int)slots[x % SLOTS], y);
    } else if (!strcmp(word, "recvmsg")) {
        receive_message((int)slots[x % SLOTS], y);
    } else if (!strcmp(word, "exec")) { // !exec: a child executes this program, which says what it inherited
        pid_t pid = fork();
        if (pid == 0) {
            char position[32];
            snprintf(position, sizeof position, "%d", out->fd);
            execl("/proc/self/exe", "interpreter", "inherited", position, NULL);
            _exit(98);
        }
        int status = -1;
        while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {}
        say(" exec: status %x", status);
    }
    return at;
}

static void run(int from, int to) {
    for (int at = from; at < to; at++) {
        char copy[1024];
        snprintf(copy, sizeof copy, "%s", line_at[at]);
        token_count = 0;
        for (char *p = strtok(copy, " "); p && token_count < 16; p = strtok(NULL, " ")) tokens[token_count++] = p;
        if (token_count == 0) continue;
        say("%d %s", at, tokens[0]);
        if (tokens[0][0] == '!') at = special(at, to);
        else plain();
        say_signals();
        say("\n");
    }
}

// After an execve: the descriptors, dispositions and mask that came along, in the log that is still mapped as a file.
static int inherited(int fd) {
    out = mmap(NULL, sizeof *out, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (out == MAP_FAILED) return 97;
    for (int i = 3; i < 64; i++) {
        int flags = fcntl(i, F_GETFD);
        if (flags >= 0 && i != fd) say(" [%d]", i);
    }
    sigset_t mask;
    sigprocmask(SIG_BLOCK, NULL, &mask);
    for (int s = 1; s < 32; s++) {
        struct sigaction act;
        sigaction(s, NULL, &act);
        if (act.sa_handler != SIG_DFL) say(" sig%d%s", s, act.sa_handler == SIG_IGN ? "ignored" : "handled");
        if (sigismember(&mask, s)) say(" sig%dblocked", s);
    }
    say(" umask %o", umask(0));
    return 0;
}

static int forget(const char *path, const struct stat *st, int kind, struct FTW *f) {
    (void)st, (void)f;
    if (kind == FTW_D || kind == FTW_DNR) chmod(path, 0700);
    return 0;
}

static int erase(const char *path, const struct stat *st, int kind, struct FTW *f) {
    (void)st, (void)kind, (void)f;
    return remove(path);
}

static void one_program(int number, int calls) {
    char dir[128];
    snprintf(scratch_name, sizeof scratch_name, "d%d-%d", getpid(), number);
    snprintf(dir, sizeof dir, "/dev/shm/coppice-%s", scratch_name);
    out->used = 0;
    if (mkdir(dir, 0777) != 0) exit(96);
    pid_t pid = fork();
    if (pid == 0) {
        // One deeper, so that a link to .. stays in what is erased.
        if (chdir(dir) != 0 || mkdir("w", 0777) != 0 || chdir("w") != 0) _exit(95);
        setpgid(0, 0);
        umask(022);
        for (int i = 0; i < SLOTS; i++) slots[i] = -1;
        pids[SELF] = getpid();
        struct sigaction act = {.sa_sigaction = on_signal, .sa_flags = SA_SIGINFO | SA_NODEFER | SA_ONSTACK};
        sigaction(SIGSEGV, &act, NULL);
        sigaction(SIGBUS, &act, NULL);
        struct sigaction usual = {.sa_sigaction = on_signal, .sa_flags = SA_SIGINFO};
        for (int s = 0; s < 3; s++) sigaction((int[]){SIGUSR1, SIGUSR2, SIGRTMIN}[s], &usual, NULL);
        sigaction(SIGPIPE, &usual, NULL);
        alarm(5);
        run(0, calls);
        _exit(0);
    }
    int status = 0;
    waitpid(pid, &status, 0);
    say("end %x\n", status);
    // Whoever it left behind ends with it.
    kill(-pid, SIGKILL);
    while (waitpid(-1, NULL, 0) > 0) {}
    nftw(dir, forget, 16, FTW_PHYS);
    nftw(dir, erase, 16, FTW_DEPTH | FTW_PHYS);
    printf("P %d\n", number);
    fwrite(out->text, 1, (size_t)out->used, stdout);
    fflush(stdout);
}

int main(int argc, char **argv) {
    if (argc == 3 && !strcmp(argv[1], "inherited")) return inherited(atoi(argv[2]));
    // Whoever started this may have left descriptors open and signals ignored.
    for (int number = 1; number < 65; number++) signal(number, SIG_DFL);
    close_range(3, ~0u, 0);
    int fd = argc > 1 ? open(argv[1], O_RDONLY | O_CLOEXEC) : -1;
    struct stat st;
    if (fd < 0 || fstat(fd, &st) != 0) return 94;
    char *text = malloc((size_t)st.st_size + 1);
    for (ssize_t n, at = 0; (n = read(fd, text + at, (size_t)(st.st_size - at))) > 0;) at += n;
    text[st.st_size] = 0;
    close(fd);
    for (char *p = text; *p && lines < MAX_LINES;) {
        all_lines[lines++] = p;
        p = strchr(p, '\n');
        if (!p) break;
        *p++ = 0;
    }
    // The log is a file, so that what an execve starts can go on with it. It lies above the descriptors that programs see.
    int log = memfd_create("log", 0);
    struct rlimit limit = {1024, 1024};
    setrlimit(RLIMIT_NOFILE, &limit);
    int high = fcntl(log, F_DUPFD, 800);
    close(log);
    if (high < 0 || ftruncate(high, sizeof *out) != 0) return 93;
    out = mmap(NULL, sizeof *out, PROT_READ | PROT_WRITE, MAP_SHARED, high, 0);
    out->fd = high;
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    int number = 0;
    for (int i = 0, end; i < lines; i = end) {
        for (end = i + 1; end < lines && all_lines[end][0] != 'P'; end++) {}
        line_at = all_lines + i + 1;
        if (all_lines[i][0] == 'P') one_program(number++, end - i - 1);
    }
    return 0;
}

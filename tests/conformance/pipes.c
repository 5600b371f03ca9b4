// pipe, pipe2, FIFO sizes, atomic writes, O_NONBLOCK, EPIPE, F_SETPIPE_SZ.
#include "check.h"
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/ioctl.h>

int main(void) {
    int p[2];
    char buffer[70000];
    memset(buffer, 'x', sizeof buffer);
    signal(SIGPIPE, SIG_IGN);
    RESULT("pipe", pipe(p));
    RESULT("write 5", write(p[1], "hello", 5));
    int count = -1;
    RESULT("FIONREAD", ioctl(p[0], FIONREAD, &count));
    show("FIONREAD value", "%d", count);
    RESULT("read 3", read(p[0], buffer, 3));
    RESULT("read the rest", read(p[0], buffer, 100));
    RESULT("read the write end", read(p[1], buffer, 1));
    RESULT("write the read end", write(p[0], buffer, 1));
    RESULT("seek", lseek(p[0], 0, SEEK_SET));
    RESULT("pread", pread(p[0], buffer, 1, 0));
    RESULT("F_GETPIPE_SZ", fcntl(p[0], F_GETPIPE_SZ));
    RESULT("non-blocking", fcntl(p[0], F_SETFL, O_NONBLOCK));
    RESULT("read of an empty pipe", read(p[0], buffer, 1));
    RESULT("non-blocking writer", fcntl(p[1], F_SETFL, O_NONBLOCK));
    RESULT("write more than fits", write(p[1], buffer, sizeof buffer));
    RESULT("write to a full pipe", write(p[1], buffer, 1));
    RESULT("read 4096", read(p[0], buffer, 4096));
    RESULT("write PIPE_BUF after that", write(p[1], buffer, 4096));
    RESULT("write PIPE_BUF again", write(p[1], buffer, 4096));
    close(p[0]);
    RESULT("write without a reader", write(p[1], "x", 1));
    close(p[1]);
    // However much was read before, the end of the last writer is seen.
    for (int n = 0; n < 4; n++) {
        if (pipe(p) != 0)
            return 1;
        RESULT("write some", write(p[1], "abc", n));
        RESULT("read them", n ? read(p[0], buffer, n) : 0);
        struct pollfd end = {p[0], POLLIN, 0};
        RESULT("poll with a writer", poll(&end, 1, 0));
        close(p[1]);
        RESULT("poll without a writer", poll(&end, 1, 1000));
        show("events", "%#x", end.revents);
        RESULT("read at the end", read(p[0], buffer, 1));
        close(p[0]);
    }
    return 0;
}

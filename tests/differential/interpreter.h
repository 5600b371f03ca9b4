// What the two files of the interpreter share.
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <netinet/in.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#define SLOTS 32
// Where a process keeps its own id among those of its children.
#define SELF 31
#define BUFFER 70000
#define LOG (1 << 20)
#define MAX_LINES 60000
// Each region of memory has a window of its own, so that no address depends on where the kernel puts things.
#define WINDOW(n) (0x100000000000L + (n) * 0x10000000L)

struct log {
    int used, fd;
    char text[LOG];
};

extern long slots[SLOTS];
extern int ports[SLOTS], pids[SLOTS];
extern char *tokens[16];
extern int token_count;
extern char buffers[8][BUFFER];
extern char scratch_name[64];

void say(const char *format, ...) __attribute__((format(printf, 1, 2)));
// The value of a written argument; what it points at lies in the buffer of this index.
long argument(const char *token, int index);
// Prints what the call left in the buffer of this index.
void show(const char *token, int index, long result);
void send_message(int fd, long length);
void receive_message(int fd, long length);

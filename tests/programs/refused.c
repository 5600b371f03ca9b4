// Asks for what this kernel refuses and Linux has, and for what both refuse. The test knows which is which.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

int main(void) {
    prctl(PR_SET_NAME, "asker");
    // Refused here only.
    for (int i = 0; i < 3; i++) syscall(425, 8, 0); // io_uring_setup
    prctl(PR_SET_SECCOMP, 2, 0);
    socket(AF_PACKET, SOCK_RAW, 0);
    socket(AF_INET, SOCK_STREAM, 132);
    int s = socket(AF_INET, SOCK_STREAM, 0);
    int on = 1;
    setsockopt(s, SOL_SOCKET, SO_ATTACH_FILTER, &on, sizeof on);
    syscall(SYS_clone, 0x20000000 | 17, 0, 0, 0, 0); // CLONE_NEWPID
    // Refused by Linux too.
    prctl(12345);
    setsockopt(s, SOL_SOCKET, 12345, &on, sizeof on);
    setsockopt(s, SOL_SOCKET, SO_TYPE, &on, sizeof on);
    socket(AF_INET, SOCK_STREAM, 99);
    socket(12345, SOCK_STREAM, 0);
    int file = open("/etc/passwd", O_RDONLY);
    ioctl(file, 0x5401, &on);
    ioctl(file, 0x12345678, &on);
    madvise((void *)4096, 4096, 12345);
    fcntl(file, 12345);
    close(12345);
    return 0;
}

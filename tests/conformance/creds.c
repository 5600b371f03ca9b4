// Credentials: capabilities and what they permit, what changes of ids do to them, set-user-ID programs, securebits, no_new_privs.
#include "check.h"
#include <arpa/inet.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/securebits.h>
#include <sched.h>
#include <sys/auxv.h>
#include <sys/fsuid.h>
#include <sys/mount.h>
#include <sys/msg.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <sys/xattr.h>

#define BIT(n) (1ull << (n))
// What the host's root is taken to have; all else is dropped first.
static const struct { const char *name; int number; } CAPS[] = {
    {"CHOWN", CAP_CHOWN}, {"DAC_OVERRIDE", CAP_DAC_OVERRIDE}, {"DAC_READ_SEARCH", CAP_DAC_READ_SEARCH}, {"FOWNER", CAP_FOWNER}, {"FSETID", CAP_FSETID},
    {"KILL", CAP_KILL}, {"SETGID", CAP_SETGID}, {"SETUID", CAP_SETUID}, {"SETPCAP", CAP_SETPCAP}, {"NET_BIND_SERVICE", CAP_NET_BIND_SERVICE},
    {"IPC_OWNER", CAP_IPC_OWNER}, {"SYS_CHROOT", CAP_SYS_CHROOT}, {"SYS_PTRACE", CAP_SYS_PTRACE}, {"SYS_ADMIN", CAP_SYS_ADMIN}, {"SYS_NICE", CAP_SYS_NICE},
    {"MKNOD", CAP_MKNOD},
};
enum { NCAPS = sizeof CAPS / sizeof *CAPS };

static unsigned long long all(void) {
    unsigned long long set = 0;
    for (int i = 0; i < NCAPS; i++)
        set |= BIT(CAPS[i].number);
    return set;
}

struct sets { unsigned long long e, p, i; };

static struct sets get(void) {
    struct __user_cap_header_struct h = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct d[2] = {0};
    syscall(SYS_capget, &h, d);
    return (struct sets){d[0].effective | (unsigned long long)d[1].effective << 32, d[0].permitted | (unsigned long long)d[1].permitted << 32,
                         d[0].inheritable | (unsigned long long)d[1].inheritable << 32};
}

static long set(unsigned long long e, unsigned long long p, unsigned long long i) {
    struct __user_cap_header_struct h = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct d[2] = {{e, p, i}, {e >> 32, p >> 32, i >> 32}};
    return syscall(SYS_capset, &h, d);
}

static unsigned long long prctl_set(int option, int first) {
    unsigned long long found = 0;
    for (int n = 0; n < 41; n++)
        if (prctl(option, first ? first : n, first ? n : 0, 0, 0) == 1)
            found |= BIT(n);
    return found;
}

static const char *state(void) {
    static char text[512];
    uid_t r, e, s;
    gid_t gr, ge, gs;
    getresuid(&r, &e, &s);
    getresgid(&gr, &ge, &gs);
    struct sets c = get();
    snprintf(text, sizeof text, "uid %d %d %d %d gid %d %d %d %d e %llx p %llx i %llx b %llx a %llx secure %lx dumpable %d", r, e, s, setfsuid(-1), gr, ge, gs,
             setfsgid(-1), c.e, c.p, c.i, prctl_set(PR_CAPBSET_READ, 0), prctl_set(PR_CAP_AMBIENT, PR_CAP_AMBIENT_IS_SET), (long)prctl(PR_GET_SECUREBITS),
             prctl(PR_GET_DUMPABLE));
    return text;
}

static void in_child(void (*does)(int, const char *), int number, const char *name) {
    fflush(stdout);
    pid_t child = fork();
    int status = 0;
    if (child == 0) {
        does(number, name);
        fflush(stdout);
        _exit(0);
    }
    if (waitpid(child, &status, 0) != child || status != 0)
        show(CASE("%s ended", name), "%x", status);
}

// User 1000 in group 1000 with these capabilities, effective and permitted.
static void become_user(unsigned long long caps) {
    prctl(PR_SET_KEEPCAPS, 1);
    setgroups(0, NULL);
    if (setresgid(1000, 1000, 1000) != 0 || setresuid(1000, 1000, 1000) != 0 || set(caps, caps, 0) != 0)
        perror("become_user");
    prctl(PR_SET_KEEPCAPS, 0);
    prctl(PR_SET_DUMPABLE, 1);
}

// ---- what a capability permits ----

static pid_t sleeper;
static int queue;
static char secret[8] = "secret";

static void make(const char *name, uid_t owner, gid_t group, mode_t mode) {
    int fd = open(name, O_CREAT | O_RDWR | O_TRUNC, 0600);
    if (fd < 0 || write(fd, "text", 4) != 4 || fchown(fd, owner, group) != 0 || fchmod(fd, mode) != 0)
        perror(name);
    close(fd);
}

static void prepare(void) {
    if (system("rm -rf *") != 0)
        perror("rm");
    make("root", 0, 0, 0600);
    make("program", 0, 0, 0700);
    make("noexec", 0, 0, 0600);
    make("suid", 0, 0, 06777);
    make("mine", 1000, 1000, 0644);
    make("mine2", 1000, 7, 0644);
    make("mandatory", 0, 7, 02666);
    mkdir("dir", 0700);
    make("dir/file", 0, 0, 0666);
    mkdir("list", 0711);
    mkdir("sticky", 01777);
    chmod("sticky", 01777);
    make("sticky/file", 0, 0, 0666);
    mkdir("shared", 02777);
    chown("shared", 0, 7);
    chmod("shared", 02777);
    mkdir("at", 0755);
    setxattr("root", "trusted.x", "v", 1, 0);
}

static mode_t mode_of(const char *name) {
    struct stat s = {0};
    stat(name, &s);
    return s.st_mode;
}

static long closing(long fd) {
    if (fd >= 0) {
        close(fd);
        return 0;
    }
    return fd;
}

static long claim(pid_t pid, uid_t uid, gid_t gid) {
    int pair[2], one = 1;
    socketpair(AF_UNIX, SOCK_DGRAM, 0, pair);
    setsockopt(pair[1], SOL_SOCKET, SO_PASSCRED, &one, sizeof one);
    union { char bytes[CMSG_SPACE(sizeof(struct ucred))]; struct cmsghdr align; } control = {0};
    struct iovec data = {"x", 1};
    struct msghdr m = {.msg_iov = &data, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    struct cmsghdr *c = CMSG_FIRSTHDR(&m);
    *c = (struct cmsghdr){.cmsg_len = CMSG_LEN(sizeof(struct ucred)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_CREDENTIALS};
    struct ucred who = {pid, uid, gid};
    memcpy(CMSG_DATA(c), &who, sizeof who);
    long sent = sendmsg(pair[0], &m, 0);
    int error = errno;
    close(pair[0]);
    close(pair[1]);
    errno = error;
    return sent;
}

static void acts(int number, const char *name) {
    become_user(number < 0 ? 0 : BIT(number));
    char word[8] = "";
#define TRY(what, call) RESULT(CASE("%s: %s", name, what), call)
    TRY("read another's file", closing(open("root", O_RDONLY)));
    TRY("write it", closing(open("root", O_WRONLY)));
    TRY("read and write it", closing(open("root", O_RDWR)));
    TRY("truncate it", truncate("root", 3));
    TRY("access for reading", access("root", R_OK));
    TRY("access for writing", access("root", W_OK));
    TRY("faccessat with the effective ids", faccessat(AT_FDCWD, "root", R_OK, AT_EACCESS));
    TRY("access to execute a program", access("program", X_OK));
    TRY("access to execute what is none", access("noexec", X_OK));
    TRY("reach into a directory", access("dir/file", F_OK));
    TRY("list a directory", closing(open("list", O_RDONLY | O_DIRECTORY)));
    TRY("make a name in it", closing(open("list/new", O_CREAT | O_WRONLY, 0644)));
    TRY("change another's mode", chmod("root", 0600));
    TRY("change another's times", utimes("root", (struct timeval[2]){{1, 0}, {1, 0}}));
    TRY("touch another's file", utimes("root", NULL));
    TRY("open without noting the time", closing(open("suid", O_RDONLY | O_NOATIME)));
    TRY("remove from a sticky directory", unlink("sticky/file"));
    TRY("give a file away", chown("mine", 0, -1));
    TRY("give a file to a group", chown("mine2", -1, 0));
    TRY("take a file", chown("suid", 1000, -1));
    show(CASE("%s: mode after it", name), "%o", mode_of("suid"));
    TRY("open a set-user-ID program", closing(open("suid", O_WRONLY)));
    int fd = open("suid", O_WRONLY);
    TRY("write to it", write(fd, "x", 1));
    show(CASE("%s: its mode", name), "%o", mode_of("suid"));
    close(fd);
    TRY("truncate one with the group's bit only", truncate("mandatory", 2));
    show(CASE("%s: its mode then", name), "%o", mode_of("mandatory"));
    TRY("the group's bit on a foreign group's file", chmod("mine2", 02755));
    show(CASE("%s: the bit", name), "%o", mode_of("mine2"));
    TRY("a file with the group's bit in a group's directory", closing(open("shared/f", O_CREAT | O_EXCL | O_WRONLY, 02775)));
    show(CASE("%s: what it got", name), "%o", mode_of("shared/f"));
    TRY("a directory there", mkdir("shared/d", 0755));
    show(CASE("%s: what that got", name), "%o", mode_of("shared/d"));
    TRY("signal another's process", kill(sleeper, 0));
    TRY("read another's memory", process_vm_readv(sleeper, &(struct iovec){word, 7}, 1, &(struct iovec){secret, 7}, 1, 0));
    TRY("another's memory as a file", closing(open(CASE("/proc/%d/mem", sleeper), O_RDONLY)));
    TRY("another's environment", closing(open(CASE("/proc/%d/environ", sleeper), O_RDONLY)));
    TRY("another's executable", readlink(CASE("/proc/%d/exe", sleeper), word, 1));
    TRY("be nicer than before", setpriority(PRIO_PROCESS, 0, 3));
    TRY("be less nice", setpriority(PRIO_PROCESS, 0, 1));
    TRY("another's nice value", setpriority(PRIO_PROCESS, sleeper, 5));
    TRY("another's affinity", sched_setaffinity(sleeper, sizeof(cpu_set_t), &(cpu_set_t){{1}}));
    TRY("another's limits", prlimit(sleeper, RLIMIT_NOFILE, NULL, &(struct rlimit){0}));
    TRY("a lower limit", setrlimit(RLIMIT_NPROC, &(struct rlimit){800, 800}));
    TRY("a higher limit", setrlimit(RLIMIT_NPROC, &(struct rlimit){850, 850}));
    TRY("a device", mknod("sticky/null", S_IFCHR | 0666, makedev(1, 3)));
    TRY("a fifo", mknod("sticky/fifo", S_IFIFO | 0666, 0));
    TRY("another's message queue", msgsnd(queue, &(struct { long type; char text[4]; }){1, "abc"}, 4, IPC_NOWAIT));
    TRY("its state", msgctl(queue, IPC_STAT, &(struct msqid_ds){0}));
    struct msqid_ds ds = {.msg_perm = {.mode = 0600}, .msg_qbytes = 1000};
    TRY("its owner and mode", msgctl(queue, IPC_SET, &ds));
    int s = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in port = {.sin_family = AF_INET, .sin_port = htons(617), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    TRY("a port below 1024", bind(s, (struct sockaddr *)&port, sizeof port));
    close(s);
    TRY("claim process 1 on a socket", claim(1, 1000, 1000));
    TRY("claim user 0", claim(getpid(), 0, 1000));
    TRY("claim group 0", claim(getpid(), 1000, 0));
    TRY("claim the own", claim(getpid(), 1000, 1000));
    TRY("read a trusted attribute", getxattr("root", "trusted.x", word, 8));
    TRY("set a trusted attribute", setxattr("root", "trusted.y", "v", 1, 0));
    TRY("mount", mount("none", "at", "tmpfs", 0, NULL));
    TRY("unmount", umount("at"));
    TRY("drop from the bounding set", prctl(PR_CAPBSET_DROP, CAP_SYS_TIME, 0, 0, 0));
    TRY("securebits", prctl(PR_SET_SECUREBITS, SECBIT_NO_CAP_AMBIENT_RAISE));
    TRY("chroot", chroot("."));
    TRY("groups", setgroups(1, (gid_t[]){5}));
    TRY("setfsgid", setfsgid(5));
    TRY("setfsuid", setfsuid(5));
    show(CASE("%s: state", name), "%s", state());
    TRY("setregid", setregid(6, 7));
    TRY("setresgid", setresgid(8, 9, 10));
    TRY("setgid", setgid(11));
    TRY("setreuid", setreuid(6, 7));
    TRY("setresuid", setresuid(8, 9, 10));
    TRY("setuid", setuid(11));
    show(CASE("%s: in the end", name), "%s", state());
}

static void permissions(void) {
    for (int i = -1; i < NCAPS; i++) {
        prepare();
        setpriority(PRIO_PROCESS, sleeper, 2);
        in_child(acts, i < 0 ? -1 : CAPS[i].number, i < 0 ? "none" : CAPS[i].name);
    }
    prepare();
    int fd = open("suid", O_WRONLY);
    RESULT("root writes to a set-user-ID program", write(fd, "x", 1));
    show("its mode", "%o", mode_of("suid"));
    RESULT("root truncates it", ftruncate(fd, 1));
    show("its mode then", "%o", mode_of("suid"));
    RESULT("root allocates space for it", fallocate(fd, 0, 0, 100));
    show("its mode after that", "%o", mode_of("suid"));
    close(fd);
    fd = open("suid", O_WRONLY | O_TRUNC);
    show("its mode opened to be empty", "%o", mode_of("suid"));
    close(fd);
    RESULT("root chowns it to nobody else", chown("suid", -1, -1));
    show("its mode in the end", "%o", mode_of("suid"));
    RESULT("root chowns one with the group's bit only", chown("mandatory", 0, -1));
    show("that one's mode", "%o", mode_of("mandatory"));
    RESULT("root chowns a directory", chown("shared", 3, -1));
    show("the directory's mode", "%o", mode_of("shared"));
}

// ---- changes of ids ----

static long by_number(int call, int a, int b, int c) {
    static const long calls[] = {SYS_setuid, SYS_setreuid, SYS_setresuid, SYS_setfsuid, SYS_setgid, SYS_setregid, SYS_setresgid, SYS_setfsgid};
    return syscall(calls[call], a, b, c);
}

static void changes_of_ids(int bits, const char *name) {
    static const struct { const char *name; int call, a, b, c; } steps[] = {
        {"setresuid 0 1000 0", 2, 0, 1000, 0}, {"back", 2, -1, 0, -1}, {"setfsuid 1000", 3, 1000, 0, 0}, {"setfsuid 0", 3, 0, 0, 0},
        {"setreuid 0 7", 1, 0, 7, 0}, {"setreuid -1 0", 1, -1, 0, 0}, {"setgid 9", 4, 9, 0, 0}, {"setresgid 1 2 3", 6, 1, 2, 3},
        {"setfsgid 5", 7, 5, 0, 0}, {"setresuid 5 5 0", 2, 5, 5, 0}, {"setfsuid 0 again", 3, 0, 0, 0}, {"setresuid -1 0 -1", 2, -1, 0, -1},
        {"setreuid 5 6", 1, 5, 6, 0}, {"setresuid -1 5 -1", 2, -1, 5, -1}, {"setresuid 0 0 0", 2, 0, 0, 0}, {"setuid 0", 0, 0, 0, 0}, {"setuid 5", 0, 5, 0, 0},
    };
    RESULT(CASE("%s: securebits", name), prctl(PR_SET_SECUREBITS, bits));
    set(all(), all(), BIT(CAP_KILL) | BIT(CAP_CHOWN));
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_KILL, 0, 0);
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
        prctl(PR_SET_DUMPABLE, 1);
        RESULT(CASE("%s: %s", name, steps[i].name), by_number(steps[i].call, steps[i].a, steps[i].b, steps[i].c));
        show(CASE("%s: state after %s", name, steps[i].name), "%s", state());
    }
}

// ---- the sets themselves ----

static void capset_rules(int with_pcap, const char *name) {
    unsigned long long k = BIT(CAP_KILL), c = BIT(CAP_CHOWN), s = BIT(CAP_SYS_NICE), p = with_pcap ? BIT(CAP_SETPCAP) : 0;
    prctl(PR_CAPBSET_DROP, CAP_SYS_NICE, 0, 0, 0);
    become_user(k | c | p);
    const struct { const char *name; unsigned long long e, p, i; } tries[] = {
        {"the same", k | c | p, k | c | p, 0}, {"none effective", 0, k | c | p, 0}, {"effective again", k | p, k | c | p, 0}, {"effective beyond permitted", k | s, k | c | p, 0},
        {"a gain", k | p, k | c | s | p, 0}, {"inheritable", k | p, k | c | p, k}, {"inheritable that is not permitted", k | p, k | c | p, k | BIT(CAP_FOWNER)},
        {"inheritable beyond the bounding set", k | p, k | c | p, s}, {"inheritable two", k | p, k | c | p, k | c}, {"lose one", k | p, k | p, k | c},
        {"get it back", k | p, k | c | p, k | c}, {"unknown ones", k | p, k | p, k | c | BIT(60)}, {"drop all", 0, 0, k | c}, {"the last", k, k, 0}, {"nothing", 0, 0, 0},
    };
    for (size_t i = 0; i < sizeof tries / sizeof *tries; i++) {
        RESULT(CASE("%s: capset, %s", name, tries[i].name), set(tries[i].e, tries[i].p, tries[i].i));
        struct sets now = get();
        show(CASE("%s: sets after %s", name, tries[i].name), "e %llx p %llx i %llx", now.e, now.p, now.i);
    }
}

static void headers(void) {
    struct __user_cap_data_struct d[2] = {0};
    static const unsigned versions[] = {_LINUX_CAPABILITY_VERSION_1, _LINUX_CAPABILITY_VERSION_2, _LINUX_CAPABILITY_VERSION_3, 0, 1};
    for (int i = 0; i < 5; i++) {
        for (int pid = -1; pid < 1; pid++) {
            struct __user_cap_header_struct h = {versions[i], pid};
            RESULT(CASE("capget, version %x, process %d", versions[i], pid), syscall(SYS_capget, &h, d));
            h = (struct __user_cap_header_struct){versions[i], pid};
            RESULT(CASE("capget without data, version %x, process %d", versions[i], pid), syscall(SYS_capget, &h, NULL));
            show(CASE("version said to %x, process %d", versions[i], pid), "%x", h.version);
            if (pid == 0)
                continue;
            h = (struct __user_cap_header_struct){versions[i], pid};
            RESULT(CASE("capset, version %x, process %d", versions[i], pid), syscall(SYS_capset, &h, d));
        }
    }
    struct __user_cap_header_struct h = {_LINUX_CAPABILITY_VERSION_3, 0x3ffffff};
    RESULT("capget of nobody", syscall(SYS_capget, &h, d));
    RESULT("capget with a header that is not there", syscall(SYS_capget, 8, d));
    RESULT("capset with a header that is not there", syscall(SYS_capset, 8, d));
    h = (struct __user_cap_header_struct){_LINUX_CAPABILITY_VERSION_3, 0};
    RESULT("capset with data that is not there", syscall(SYS_capset, &h, 8));
    RESULT("capget with data that is not there", syscall(SYS_capget, &h, 8));
    h = (struct __user_cap_header_struct){_LINUX_CAPABILITY_VERSION_3, sleeper};
    RESULT("capset of another", syscall(SYS_capset, &h, d));
    RESULT("capget of another", syscall(SYS_capget, &h, d));
    show("its effective set", "%x %x", d[0].effective, d[1].effective);
}

static void prctls(int number, const char *name) {
    for (int n = 0; n < 2; n++) {
        RESULT(CASE("%s %d: bounding set, 41", name, n), prctl(PR_CAPBSET_READ, 41, 0, 0, 0));
        RESULT(CASE("%s %d: drop 41", name, n), prctl(PR_CAPBSET_DROP, 41, 0, 0, 0));
        RESULT(CASE("%s %d: drop CAP_MKNOD", name, n), prctl(PR_CAPBSET_DROP, CAP_MKNOD, 0, 0, 0));
        RESULT(CASE("%s %d: is it there", name, n), prctl(PR_CAPBSET_READ, CAP_MKNOD, 0, 0, 0));
        RESULT(CASE("%s %d: raise what is not inheritable", name, n), prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_KILL, 0, 0));
        RESULT(CASE("%s %d: make it so", name, n), set(get().e, get().p, BIT(CAP_KILL) | BIT(CAP_CHOWN)));
        RESULT(CASE("%s %d: raise it", name, n), prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_KILL, 0, 0));
        RESULT(CASE("%s %d: raise another", name, n), prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_CHOWN, 0, 0));
        RESULT(CASE("%s %d: raise one that is not", name, n), prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_FOWNER, 0, 0));
        RESULT(CASE("%s %d: is it set", name, n), prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_IS_SET, CAP_KILL, 0, 0));
        RESULT(CASE("%s %d: lower it", name, n), prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_LOWER, CAP_KILL, 0, 0));
        RESULT(CASE("%s %d: lower it again", name, n), prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_LOWER, CAP_KILL, 0, 0));
        RESULT(CASE("%s %d: is it still", name, n), prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_IS_SET, CAP_KILL, 0, 0));
        RESULT(CASE("%s %d: ambient 41", name, n), prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_IS_SET, 41, 0, 0));
        RESULT(CASE("%s %d: ambient with more arguments", name, n), prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_IS_SET, CAP_KILL, 1, 0));
        RESULT(CASE("%s %d: ambient, unknown", name, n), prctl(PR_CAP_AMBIENT, 7, CAP_KILL, 0, 0));
        RESULT(CASE("%s %d: clear with an argument", name, n), prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 1, 0, 0));
        RESULT(CASE("%s %d: lose the inheritable", name, n), set(get().e, get().p, 0));
        show(CASE("%s %d: state", name, n), "%s", state());
        RESULT(CASE("%s %d: keep capabilities, 2", name, n), prctl(PR_SET_KEEPCAPS, 2));
        RESULT(CASE("%s %d: keep capabilities", name, n), prctl(PR_SET_KEEPCAPS, 1));
        RESULT(CASE("%s %d: are they kept", name, n), prctl(PR_GET_KEEPCAPS));
        static const int bits[] = {0x10, 0x2f, 0x20, 0x1, 0x3, 0x0, 0x2, 0x1000, 0x43, 0xc3, 0x83};
        for (int i = 0; i < 11; i++) {
            RESULT(CASE("%s %d: securebits %x", name, n, bits[i]), prctl(PR_SET_SECUREBITS, bits[i]));
            RESULT(CASE("%s %d: securebits after %x", name, n, bits[i]), prctl(PR_GET_SECUREBITS));
        }
        RESULT(CASE("%s %d: keep capabilities then", name, n), prctl(PR_SET_KEEPCAPS, 1));
        if (n == 0)
            become_user(number ? all() & ~BIT(CAP_SETPCAP) : 0);
    }
}

// ---- programs ----

static const struct { const char *name; uid_t owner; gid_t group; mode_t mode; } FILES[] = {
    {"plain", 0, 0, 0755}, {"setuid0", 0, 0, 04755}, {"setgid0", 0, 0, 02755}, {"both0", 0, 0, 06755}, {"setuid1000", 1000, 1000, 06755},
    {"setuid2000", 2000, 2000, 06755}, {"mandatory0", 0, 0, 02745}, {"unreadable", 0, 0, 0711},
};
enum { NFILES = sizeof FILES / sizeof *FILES };

static void caller(int kind) {
    unsigned long long k = BIT(CAP_KILL);
    switch (kind) {
    case 0: break;
    case 1: become_user(0); break;
    case 2:
        become_user(k | BIT(CAP_SETUID));
        set(k, k | BIT(CAP_SETUID), k);
        prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_KILL, 0, 0);
        break;
    case 3:
        become_user(0);
        prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
        break;
    case 4: prctl(PR_SET_SECUREBITS, SECBIT_NOROOT | SECBIT_KEEP_CAPS); break;
    case 5: if (setresuid(1000, 0, 0) != 0) perror("setresuid"); break;
    case 6: if (setresuid(0, 1000, 1000) != 0) perror("setresuid"); break;
    case 7:
        prctl(PR_CAPBSET_DROP, CAP_CHOWN, 0, 0, 0);
        become_user(0);
        break;
    case 8:
        set(all(), all(), BIT(CAP_CHOWN) | k);
        prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_CHOWN, 0, 0);
        set(0, k | BIT(CAP_SETPCAP) | BIT(CAP_CHOWN), BIT(CAP_CHOWN) | k);
        break;
    case 9:
        prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
        break;
    }
}

static int shares_fs(void *path) {
    become_user(0);
    execl(path, path, "report", (char *)NULL);
    return 9;
}

static void run(const char *what, const char *path, int kind) {
    fflush(stdout);
    int status = 0;
    pid_t child = fork();
    if (child == 0) {
        setenv("WHAT", what, 1);
        if (kind == 100) {
            static char stack[65536];
            pid_t second = clone(shares_fs, stack + sizeof stack, CLONE_FS | SIGCHLD, (void *)path);
            if (waitpid(second, &status, 0) != second || status != 0)
                show(what, "status %x", status);
            _exit(0);
        }
        caller(kind);
        execl(path, path, "report", (char *)NULL);
        RESULT(what, -1);
        fflush(stdout);
        _exit(0);
    }
    if (waitpid(child, &status, 0) != child || status != 0)
        show(CASE("%s ended", what), "%x", status);
}

static void programs(void) {
    static const char *const kinds[] = {"root", "a user", "a user with ambient KILL", "a user without new privileges", "root under NOROOT", "effective root",
                                        "real root", "a user bounded", "root with little", "root without new privileges"};
    if (system("rm -rf * && cp /proc/$PPID/exe program && mkdir nosuid") != 0)
        perror("cp");
    mount("none", "nosuid", "tmpfs", MS_NOSUID, "mode=755");
    for (int i = 0; i < NFILES; i++) {
        if (system(CASE("cp program %s", FILES[i].name)) != 0 || chown(FILES[i].name, FILES[i].owner, FILES[i].group) != 0 || chmod(FILES[i].name, FILES[i].mode) != 0)
            perror(FILES[i].name);
    }
    if (system("cp -p both0 nosuid/both0; printf '#!%s/setuid2000\\n' $PWD >script; chown 0:0 script; chmod 6755 script; chmod 755 .") != 0)
        perror("cp");
    for (int kind = 0; kind < 10; kind++)
        for (int i = 0; i < NFILES; i++)
            run(CASE("%s runs %s", kinds[kind], FILES[i].name), FILES[i].name, kind);
    run("a user runs both0 from a nosuid mount", "nosuid/both0", 1);
    run("effective root runs both0 from a nosuid mount", "nosuid/both0", 5);
    run("a user runs a set-user-ID script", "./script", 1);
    run("one that shares its directory runs plain", "plain", 100);
    run("one that shares its directory runs both0", "both0", 100);
    umount("nosuid");
}

static int report(void) {
    show(getenv("WHAT"), "%s AT_SECURE %lu ids %lu %lu %lu %lu kept %d", state(), getauxval(AT_SECURE), getauxval(AT_UID), getauxval(AT_EUID), getauxval(AT_GID),
         getauxval(AT_EGID), prctl(PR_GET_KEEPCAPS));
    return 0;
}

static void hidden(int number, const char *name) {
    char word[16];
    become_user(0);
    pid_t child = fork();
    if (child == 0) {
        prctl(PR_SET_DUMPABLE, number);
        pause();
    }
    while (prctl(PR_GET_DUMPABLE) != 1)
        usleep(1000);
    usleep(20000);
    struct stat s = {0};
    RESULT(CASE("%s: memory", name), process_vm_readv(child, &(struct iovec){word, 7}, 1, &(struct iovec){secret, 7}, 1, 0));
    RESULT(CASE("%s: maps", name), closing(open(CASE("/proc/%d/maps", child), O_RDONLY)));
    RESULT(CASE("%s: cwd", name), readlink(CASE("/proc/%d/cwd", child), word, 1));
    RESULT(CASE("%s: status", name), closing(open(CASE("/proc/%d/status", child), O_RDONLY)));
    stat(CASE("/proc/%d", child), &s);
    show(CASE("%s: owner of its directory", name), "%d %d", s.st_uid, s.st_gid);
    stat(CASE("/proc/%d/stat", child), &s);
    show(CASE("%s: owner of its stat", name), "%d %d", s.st_uid, s.st_gid);
    RESULT(CASE("%s: signal", name), kill(child, SIGKILL));
    waitpid(child, NULL, 0);
}

int main(int argc, char **argv) {
    if (argc > 1 && strcmp(argv[argc - 1], "report") == 0)
        return report();
    unshare(CLONE_NEWNS);
    mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL);
    scratch();
    chmod(".", 0755);
    for (int n = 0; n < 41; n++)
        if (!(all() & BIT(n)))
            prctl(PR_CAPBSET_DROP, n, 0, 0, 0);
    RESULT("fewer capabilities", set(all(), all(), 0));
    show("state at first", "%s", state());
    setrlimit(RLIMIT_NPROC, &(struct rlimit){900, 900});
    sleeper = fork();
    if (sleeper == 0)
        for (;;)
            pause();
    queue = msgget(IPC_PRIVATE, 0600);
    permissions();
    headers();
    in_child(changes_of_ids, 0, "ordinary");
    in_child(changes_of_ids, SECBIT_KEEP_CAPS, "kept");
    in_child(changes_of_ids, SECBIT_NO_SETUID_FIXUP, "no fixup");
    in_child(changes_of_ids, SECBIT_NOROOT, "no root");
    in_child(capset_rules, 0, "without SETPCAP");
    in_child(capset_rules, 1, "with SETPCAP");
    in_child(prctls, 0, "prctl");
    in_child(prctls, 1, "prctl, a user with capabilities");
    in_child(hidden, 1, "a child that is dumpable");
    in_child(hidden, 0, "a child that is not");
    programs();
    kill(sleeper, SIGKILL);
    waitpid(sleeper, NULL, 0);
    msgctl(queue, IPC_RMID, NULL);
    if (chdir(scratch_path) != 0)
        perror("chdir");
    return 0;
}

// System V shared memory, semaphores and message queues; POSIX message queues.
#include "check.h"
#include <sys/socket.h>
#include <sys/syscall.h>
#include <linux/netlink.h>
#include <fcntl.h>
#include <grp.h>
#include <mqueue.h>
#include <pthread.h>
#include <signal.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>

union semun {
    int val;
    struct semid_ds *buf;
    unsigned short *array;
    struct seminfo *info;
};

static key_t fresh_key(void) {
    return (key_t)(0x40000000 + (getpid() & 0xffff) * 64);
}

// Runs a function in a child process with other ids; prints what it prints.
static void as_user(uid_t uid, gid_t gid, void (*body)(int), int argument) {
    pid_t pid = fork();
    if (pid == 0) {
        if (setgroups(0, NULL) != 0 || setgid(gid) != 0 || setuid(uid) != 0)
            show("change of user", "failed");
        body(argument);
        _exit(0);
    }
    waitpid(pid, NULL, 0);
}

static void shm_other(int id) {
    struct shmid_ds ds;
    void *p = shmat(id, NULL, SHM_RDONLY);
    show("shm other rdonly", "%s", p == (void *)-1 ? strerrorname_np(errno) : "ok");
    p = shmat(id, NULL, 0);
    show("shm other rw", "%s", p == (void *)-1 ? strerrorname_np(errno) : "ok");
    RESULT("shm other stat", shmctl(id, IPC_STAT, &ds));
    RESULT("shm other rmid", shmctl(id, IPC_RMID, NULL));
    RESULT("shm other set", shmctl(id, IPC_SET, &ds));
}

static void test_shm(void) {
    struct shmid_ds ds;
    key_t key = fresh_key();
    static const size_t bad_sizes[] = {0, (size_t)-1, ((size_t)1 << 63)};
    for (unsigned i = 0; i < 3; i++)
        RESULT(CASE("shmget bad size %u", i), shmget(IPC_PRIVATE, bad_sizes[i], 0600));
    RESULT("shmget no such key", shmget(key, 4096, 0600));
    int id = shmget(key, 5000, IPC_CREAT | IPC_EXCL | 0640);
    CHECK("shmget", id >= 0);
    CHECK("shmget again", shmget(key, 5000, 0) == id);
    CHECK("shmget smaller", shmget(key, 1, IPC_CREAT) == id);
    CHECK("shmget size zero finds", shmget(key, 0, 0) == id);
    RESULT("shmget larger than it is", shmget(key, 5001, 0));
    RESULT("shmget within the last page", shmget(key, 8192, 0));
    RESULT("shmget excl", shmget(key, 5000, IPC_CREAT | IPC_EXCL));
    RESULT("stat", shmctl(id, IPC_STAT, &ds));
    show("segsz", "%zu", ds.shm_segsz);
    show("nattch", "%lu", (unsigned long)ds.shm_nattch);
    show("mode", "%o", ds.shm_perm.mode);
    CHECK("cpid", ds.shm_cpid == getpid());
    show("lpid", "%d", ds.shm_lpid);
    show("times", "%d %d %d", ds.shm_atime != 0, ds.shm_dtime != 0, ds.shm_ctime != 0);
    CHECK("key", ds.shm_perm.__key == key);
    CHECK("uid", ds.shm_perm.uid == geteuid() && ds.shm_perm.cuid == geteuid());

    char *p = shmat(id, NULL, 0);
    CHECK("shmat", p != (void *)-1);
    CHECK("zero", p[0] == 0 && p[4999] == 0 && p[8191] == 0);
    char *q = shmat(id, NULL, SHM_RDONLY);
    CHECK("shmat twice", q != (void *)-1 && q != p);
    strcpy(p + 4000, "hello");
    show("seen by the other", "%s", q + 4000);
    shmctl(id, IPC_STAT, &ds);
    show("nattch 2", "%lu", (unsigned long)ds.shm_nattch);
    CHECK("lpid is mine", ds.shm_lpid == getpid());
    show("times after", "%d %d", ds.shm_atime != 0, ds.shm_dtime != 0);
    RESULT("mprotect of a read-only attachment", mprotect(q, 4096, PROT_READ | PROT_WRITE));
    RESULT("shmdt misaligned", shmdt(q + 1));
    RESULT("shmdt inside", shmdt(q + 4096));
    RESULT("shmdt", shmdt(q));
    RESULT("shmdt again", shmdt(q));
    shmctl(id, IPC_STAT, &ds);
    show("nattch 1", "%lu", (unsigned long)ds.shm_nattch);
    CHECK("dtime", ds.shm_dtime != 0);

    // Addresses.
    char *room = mmap(NULL, 1 << 20, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK("shmat over a mapping", shmat(id, room, 0) == (void *)-1 && errno == EINVAL);
    CHECK("shmat remap", shmat(id, room, SHM_REMAP) == room);
    CHECK("remap shares", strcmp(room + 4000, "hello") == 0);
    RESULT("detach remapped", shmdt(room));
    CHECK("shmat at", shmat(id, room, 0) == room);
    RESULT("detach", shmdt(room));
    CHECK("shmat misaligned", shmat(id, room + 100, 0) == (void *)-1 && errno == EINVAL);
    CHECK("shmat rounded", shmat(id, room + 100, SHM_RND) == room);
    RESULT("detach rounded", shmdt(room));
    CHECK("remap at null", shmat(id, NULL, SHM_REMAP) == (void *)-1 && errno == EINVAL);
    char *x = shmat(id, NULL, SHM_EXEC);
    CHECK("shm exec", x != (void *)-1);
    // A hole in the middle.
    RESULT("unmap the first page", munmap(x, 4096));
    RESULT("detach what is left", shmdt(x));
    RESULT("nothing is left", shmdt(x));
    CHECK("shmat bad id", shmat(-1, NULL, 0) == (void *)-1 && errno == EINVAL);
    CHECK("shmat unknown id", shmat(id + 32768, NULL, 0) == (void *)-1 && errno == EINVAL);
    CHECK("bad address", shmctl(id, IPC_STAT, (void *)8) == -1 && errno == EFAULT);

    // Fork keeps attachments, exec and exit drop them.
    pid_t pid = fork();
    if (pid == 0) {
        shmctl(id, IPC_STAT, &ds);
        show("nattch in the child", "%lu", (unsigned long)ds.shm_nattch);
        strcpy(p, "from the child");
        _exit(0);
    }
    waitpid(pid, NULL, 0);
    show("written by the child", "%s", p);
    shmctl(id, IPC_STAT, &ds);
    show("nattch after the child", "%lu", (unsigned long)ds.shm_nattch);

    if (geteuid() == 0)
        as_user(4242, 4242, shm_other, id);
    ds.shm_perm.mode = 0604;
    ds.shm_perm.uid = geteuid();
    RESULT("set", shmctl(id, IPC_SET, &ds));
    RESULT("stat after set", shmctl(id, IPC_STAT, &ds));
    show("mode after set", "%o", ds.shm_perm.mode);
    if (geteuid() == 0)
        as_user(4242, 4242, shm_other, id);
    RESULT("lock", shmctl(id, SHM_LOCK, NULL));
    shmctl(id, IPC_STAT, &ds);
    show("locked mode", "%o", ds.shm_perm.mode);
    RESULT("unlock", shmctl(id, SHM_UNLOCK, NULL));
    RESULT("bad command", shmctl(id, 99, &ds));
    RESULT("negative command", shmctl(id, -1, &ds));

    // Removed while attached.
    RESULT("rmid", shmctl(id, IPC_RMID, NULL));
    RESULT("key is free", shmget(key, 5000, 0));
    RESULT("stat while attached", shmctl(id, IPC_STAT, &ds));
    show("dest mode", "%o", ds.shm_perm.mode);
    show("key after rmid", "%d", ds.shm_perm.__key);
    char *again = shmat(id, NULL, 0);
    CHECK("attach a removed one", again != (void *)-1);
    show("contents stay", "%s", again);
    RESULT("detach 1", shmdt(again));
    RESULT("detach 2", shmdt(p));
    RESULT("gone", shmctl(id, IPC_STAT, &ds));
    CHECK("attach gone", shmat(id, NULL, 0) == (void *)-1 && errno == EINVAL);
    RESULT("rmid gone", shmctl(id, IPC_RMID, NULL));
    munmap(room, 1 << 20);

    // Private ones differ.
    int a = shmget(IPC_PRIVATE, 4096, 0600), b = shmget(IPC_PRIVATE, 4096, 0600);
    CHECK("private differ", a >= 0 && b >= 0 && a != b);
    struct shm_info info;
    CHECK("SHM_INFO", shmctl(0, SHM_INFO, (struct shmid_ds *)&info) >= 0 && info.used_ids >= 2);
    struct shminfo limits;
    CHECK("IPC_INFO", shmctl(0, IPC_INFO, (struct shmid_ds *)&limits) >= 0);
    show("shmmin", "%lu", limits.shmmin);
    show("shmmni", "%lu", limits.shmmni);
    show("shmmax", "%lu", limits.shmmax);
    shmctl(a, IPC_RMID, NULL);
    shmctl(b, IPC_RMID, NULL);
    // Large and sparse.
    int big = shmget(IPC_PRIVATE, (size_t)1 << 30, 0600);
    CHECK("a GiB", big >= 0);
    char *g = shmat(big, NULL, 0);
    CHECK("attach a GiB", g != (void *)-1);
    g[0] = 1, g[(1 << 30) - 1] = 2;
    CHECK("touch both ends", g[0] == 1 && g[(1 << 30) - 1] == 2 && g[1 << 29] == 0);
    RESULT("rmid a GiB", shmctl(big, IPC_RMID, NULL));
    RESULT("detach a GiB", shmdt(g));
}

static int op(int id, int number, int change, int flags) {
    struct sembuf b = {number, change, flags};
    return semop(id, &b, 1);
}

static void sem_other(int id) {
    struct semid_ds ds;
    union semun u = {.buf = &ds};
    RESULT("sem other getval", semctl(id, 0, GETVAL));
    RESULT("sem other op", op(id, 0, 1, 0));
    RESULT("sem other wait zero", op(id, 0, 0, IPC_NOWAIT));
    RESULT("sem other setval", semctl(id, 0, SETVAL, (union semun){.val = 1}));
    RESULT("sem other stat", semctl(id, 0, IPC_STAT, u));
    RESULT("sem other rmid", semctl(id, 0, IPC_RMID));
}

static void nothing(int signal) {
    (void)signal;
}

static void wait_until_asleep(int id, int number, int command, int wanted) {
    for (int i = 0; i < 2000 && semctl(id, number, command) != wanted; i++)
        usleep(1000);
}

static void test_sem(void) {
    key_t key = fresh_key() + 1;
    struct semid_ds ds;
    union semun u = {.buf = &ds};
    static const int bad[] = {-1, 0, 32001, 1 << 30};
    for (unsigned i = 0; i < 4; i++)
        RESULT(CASE("semget bad count %u", i), semget(IPC_PRIVATE, bad[i], 0600));
    RESULT("semget no such key", semget(key, 1, 0));
    int id = semget(key, 3, IPC_CREAT | IPC_EXCL | 0640);
    CHECK("semget", id >= 0);
    CHECK("semget again", semget(key, 3, 0) == id && semget(key, 0, 0) == id && semget(key, 2, 0) == id);
    RESULT("semget more", semget(key, 4, 0));
    RESULT("semget excl", semget(key, 3, IPC_CREAT | IPC_EXCL));
    RESULT("sem stat", semctl(id, 0, IPC_STAT, u));
    show("sem nsems", "%lu", (unsigned long)ds.sem_nsems);
    show("sem mode", "%o", ds.sem_perm.mode);
    show("sem times", "%d %d", ds.sem_otime != 0, ds.sem_ctime != 0);
    for (int i = -1; i <= 3; i++)
        RESULT(CASE("getval %d", i), semctl(id, i, GETVAL));
    RESULT("getpid", semctl(id, 0, GETPID));
    static const int values[] = {-1, 0, 1, 32767, 32768};
    for (unsigned i = 0; i < 5; i++) {
        RESULT(CASE("setval %d", values[i]), semctl(id, 1, SETVAL, (union semun){.val = values[i]}));
        RESULT(CASE("value after setval %d", values[i]), semctl(id, 1, GETVAL));
    }
    RESULT("setval out of range", semctl(id, 3, SETVAL, (union semun){.val = 1}));
    unsigned short all[3] = {5, 0, 32767};
    RESULT("setall", semctl(id, 0, SETALL, (union semun){.array = all}));
    unsigned short got[3] = {9, 9, 9};
    RESULT("getall", semctl(id, 0, GETALL, (union semun){.array = got}));
    show("all", "%u %u %u", got[0], got[1], got[2]);
    unsigned short wrong[3] = {1, 40000, 1};
    RESULT("setall too large", semctl(id, 0, SETALL, (union semun){.array = wrong}));
    RESULT("first is as before", semctl(id, 0, GETVAL));
    CHECK("setall pid", semctl(id, 0, GETPID) == getpid());

    RESULT("take 2", op(id, 0, -2, 0));
    RESULT("left", semctl(id, 0, GETVAL));
    RESULT("take too many", op(id, 0, -4, IPC_NOWAIT));
    RESULT("left still", semctl(id, 0, GETVAL));
    RESULT("wait for zero of three", op(id, 0, 0, IPC_NOWAIT));
    RESULT("wait for zero of zero", op(id, 1, 0, IPC_NOWAIT));
    RESULT("over the maximum", op(id, 2, 1, 0));
    RESULT("no such semaphore", op(id, 3, 1, 0));
    RESULT("no operations", semop(id, NULL, 0));
    struct sembuf many[501];
    memset(many, 0, sizeof many);
    RESULT("501 operations", semop(id, many, 501));
    for (int i = 0; i < 500; i++)
        many[i] = (struct sembuf){1, i % 2 ? -1 : 1, 0};
    RESULT("500 operations", semop(id, many, 500));
    RESULT("bad address", semop(id, (void *)8, 1));
    RESULT("bad id", semop(-1, many, 1));
    RESULT("unknown id", semop(id + 32768, many, 1));
    struct sembuf together[3] = {{0, -3, 0}, {1, 1, 0}, {2, -1, IPC_NOWAIT}};
    RESULT("three together", semop(id, together, 3));
    semctl(id, 0, GETALL, (union semun){.array = got});
    show("after three", "%u %u %u", got[0], got[1], got[2]);
    struct sembuf none[3] = {{1, -1, 0}, {2, -5, 0}, {0, -1, IPC_NOWAIT}};
    RESULT("all or none", semop(id, none, 3));
    semctl(id, 0, GETALL, (union semun){.array = got});
    show("after none", "%u %u %u", got[0], got[1], got[2]);
    struct sembuf swap[2] = {{1, 0, IPC_NOWAIT}, {1, 1, 0}};
    RESULT("zero then up, while one", semop(id, swap, 2));
    RESULT("down to zero", op(id, 1, -1, 0));
    RESULT("zero then up", semop(id, swap, 2));
    RESULT("sem stat 2", semctl(id, 0, IPC_STAT, u));
    CHECK("otime", ds.sem_otime != 0);

    // Time-outs.
    struct timespec soon = {0, 1000000}, wrong_time = {0, 1000000000}, negative = {-1, 0};
    struct sembuf down = {0, -1, 0};
    RESULT("timed out", semtimedop(id, &down, 1, &soon));
    RESULT("bad time", semtimedop(id, &down, 1, &wrong_time));
    RESULT("negative time", semtimedop(id, &down, 1, &negative));
    RESULT("time not needed", (op(id, 0, 1, 0), semtimedop(id, &down, 1, &soon)));

    // Sleepers are counted, woken, interrupted and told of a removal.
    pid_t pid = fork();
    if (pid == 0)
        _exit(op(id, 0, -2, 0) == 0 ? 7 : 8);
    wait_until_asleep(id, 0, GETNCNT, 1);
    RESULT("ncnt", semctl(id, 0, GETNCNT));
    RESULT("zcnt", semctl(id, 0, GETZCNT));
    op(id, 0, 1, 0);
    RESULT("still asleep", semctl(id, 0, GETNCNT));
    op(id, 0, 1, 0);
    int status;
    waitpid(pid, &status, 0);
    show("woken", "%d", WEXITSTATUS(status));
    CHECK("pid of the last operation", semctl(id, 0, GETPID) == pid);
    RESULT("ncnt after", semctl(id, 0, GETNCNT));
    semctl(id, 0, SETVAL, (union semun){.val = 1});
    pid = fork();
    if (pid == 0)
        _exit(op(id, 0, 0, 0) == 0 ? 7 : 8);
    wait_until_asleep(id, 0, GETZCNT, 1);
    RESULT("zcnt asleep", semctl(id, 0, GETZCNT));
    semctl(id, 0, SETVAL, (union semun){.val = 0});
    waitpid(pid, &status, 0);
    show("woken at zero", "%d", WEXITSTATUS(status));
    pid = fork();
    if (pid == 0) {
        struct sigaction sa = {.sa_handler = nothing, .sa_flags = SA_RESTART};
        sigaction(SIGUSR1, &sa, NULL);
        int r = op(id, 0, -1, 0);
        _exit(r == -1 && errno == EINTR ? 7 : 8);
    }
    wait_until_asleep(id, 0, GETNCNT, 1);
    kill(pid, SIGUSR1);
    waitpid(pid, &status, 0);
    show("interrupted in spite of SA_RESTART", "%d", WEXITSTATUS(status));
    RESULT("nobody sleeps", semctl(id, 0, GETNCNT));

    // Undo.
    semctl(id, 0, SETVAL, (union semun){.val = 5});
    pid = fork();
    if (pid == 0) {
        op(id, 0, -3, SEM_UNDO);
        op(id, 0, 1, SEM_UNDO);
        show("in the child", "%d", semctl(id, 0, GETVAL));
        _exit(0);
    }
    waitpid(pid, NULL, 0);
    RESULT("undone", semctl(id, 0, GETVAL));
    pid = fork();
    if (pid == 0) {
        op(id, 0, -3, SEM_UNDO);
        semctl(id, 0, SETVAL, (union semun){.val = 9});
        _exit(0);
    }
    waitpid(pid, NULL, 0);
    RESULT("setval clears undo", semctl(id, 0, GETVAL));
    semctl(id, 0, SETVAL, (union semun){.val = 0});
    pid = fork();
    if (pid == 0) {
        op(id, 0, 2, SEM_UNDO);
        while (semctl(id, 0, GETVAL) != 0)
            usleep(500);
        _exit(0);
    }
    while (op(id, 0, -2, IPC_NOWAIT) != 0)
        usleep(500);
    waitpid(pid, NULL, 0);
    RESULT("undo does not go below zero", semctl(id, 0, GETVAL));

    if (geteuid() == 0)
        as_user(4242, 4242, sem_other, id);
    semctl(id, 0, IPC_STAT, u);
    ds.sem_perm.mode = 0604;
    RESULT("sem set", semctl(id, 0, IPC_SET, u));
    if (geteuid() == 0)
        as_user(4242, 4242, sem_other, id);
    RESULT("sem bad command", semctl(id, 0, 99));
    struct seminfo info;
    CHECK("sem IPC_INFO", semctl(0, 0, IPC_INFO, (union semun){.info = &info}) >= 0);
    show("sem limits", "%d %d %d %d", info.semmni, info.semmsl, info.semopm, info.semvmx);
    pid = fork();
    if (pid == 0) {
        int r = op(id, 1, -100, 0);
        _exit(r == -1 && errno == EIDRM ? 7 : 8);
    }
    wait_until_asleep(id, 1, GETNCNT, 1);
    RESULT("sem rmid", semctl(id, 0, IPC_RMID));
    waitpid(pid, &status, 0);
    show("EIDRM", "%d", WEXITSTATUS(status));
    RESULT("sem gone", semctl(id, 0, GETVAL));
    RESULT("sem key is free", semget(key, 1, 0));
}

struct message {
    long type;
    char text[9000];
};

static void msg_other(int id) {
    struct message m = {1, "x"};
    struct msqid_ds ds;
    RESULT("msg other send", msgsnd(id, &m, 1, IPC_NOWAIT));
    RESULT("msg other receive", msgrcv(id, &m, 100, 0, IPC_NOWAIT));
    RESULT("msg other stat", msgctl(id, IPC_STAT, &ds));
    RESULT("msg other rmid", msgctl(id, IPC_RMID, NULL));
}

static void receive(int id, const char *name, size_t room, long type, int flags) {
    static struct message m;
    memset(&m, 0, sizeof m);
    ssize_t n = msgrcv(id, &m, room, type, flags | IPC_NOWAIT);
    if (n < 0)
        show(name, "-1 %s", strerrorname_np(errno));
    else
        show(name, "%zd of type %ld: %.20s", n, m.type, m.text);
}

static void fill(int id, int many) {
    static struct message m;
    for (int i = 0; i < many; i++) {
        m.type = 1 + (i * 7) % 5;
        int n = sprintf(m.text, "message %d", i);
        msgsnd(id, &m, n, 0);
    }
}

static void test_msg(void) {
    key_t key = fresh_key() + 2;
    struct msqid_ds ds;
    static struct message m;
    RESULT("msgget no such key", msgget(key, 0));
    int id = msgget(key, IPC_CREAT | IPC_EXCL | 0640);
    CHECK("msgget", id >= 0);
    CHECK("msgget again", msgget(key, 0) == id);
    RESULT("msgget excl", msgget(key, IPC_CREAT | IPC_EXCL));
    RESULT("msg stat", msgctl(id, IPC_STAT, &ds));
    show("qbytes", "%lu", (unsigned long)ds.msg_qbytes);
    show("qnum", "%lu", (unsigned long)ds.msg_qnum);
    show("msg mode", "%o", ds.msg_perm.mode);
    show("msg times", "%d %d %d", ds.msg_stime != 0, ds.msg_rtime != 0, ds.msg_ctime != 0);
    m.type = 1;
    static const long types[] = {0, -1, 1, 0x7fffffffffffffff};
    for (unsigned i = 0; i < 4; i++) {
        m.type = types[i];
        RESULT(CASE("send type %ld", types[i]), msgsnd(id, &m, 3, IPC_NOWAIT));
    }
    m.type = 1;
    static const size_t sizes[] = {0, 1, 8192, 8193, (size_t)-1};
    for (unsigned i = 0; i < 5; i++)
        RESULT(CASE("send size %zd", (ssize_t)sizes[i]), msgsnd(id, &m, sizes[i], IPC_NOWAIT));
    RESULT("send to a bad id", msgsnd(-1, &m, 1, IPC_NOWAIT));
    RESULT("send from nowhere", msgsnd(id, (void *)8, 1, IPC_NOWAIT));
    msgctl(id, IPC_STAT, &ds);
    show("bytes and messages", "%lu %lu", (unsigned long)ds.__msg_cbytes, (unsigned long)ds.msg_qnum);
    CHECK("lspid", ds.msg_lspid == getpid() && ds.msg_lrpid == 0);
    RESULT("send what does not fit", (msgsnd(id, &m, 8192, IPC_NOWAIT), msgsnd(id, &m, 8192, IPC_NOWAIT)));
    while (msgrcv(id, &m, 9000, 0, IPC_NOWAIT) >= 0)
        ;
    RESULT("empty", msgrcv(id, &m, 100, 0, IPC_NOWAIT));
    RESULT("negative size", msgrcv(id, &m, (size_t)-1, 0, IPC_NOWAIT));
    RESULT("receive from a bad id", msgrcv(-1, &m, 100, 0, IPC_NOWAIT));
    fill(id, 12);
    receive(id, "first", 100, 0, 0);
    for (long type = 1; type <= 6; type++)
        receive(id, CASE("of type %ld", type), 100, type, 0);
    for (long type = -1; type >= -3; type--)
        receive(id, CASE("lowest up to %ld", type), 100, type, 0);
    receive(id, "too long", 4, 0, 0);
    receive(id, "cut", 4, 0, MSG_NOERROR);
    receive(id, "except 3", 100, 3, MSG_EXCEPT);
    receive(id, "copy 0", 100, 0, MSG_COPY);
    receive(id, "copy 1", 100, 1, MSG_COPY);
    receive(id, "copy 99", 100, 99, MSG_COPY);
    RESULT("copy and wait", msgrcv(id, &m, 100, 0, MSG_COPY));
    RESULT("copy and except", msgrcv(id, &m, 100, 0, MSG_COPY | MSG_EXCEPT | IPC_NOWAIT));
    for (int i = 0; i < 4; i++)
        receive(id, CASE("rest %d", i), 100, 0, 0);
    m.type = 3;
    // Blocking in both directions.
    int status;
    pid_t pid = fork();
    if (pid == 0) {
        ssize_t n = msgrcv(id, &m, 100, 5, 0);
        _exit(n == 3 && m.type == 5 ? 7 : 8);
    }
    usleep(5000);
    m.type = 4;
    msgsnd(id, &m, 1, 0);
    m.type = 5;
    RESULT("send to a sleeper", msgsnd(id, &m, 3, 0));
    waitpid(pid, &status, 0);
    show("receiver", "%d", WEXITSTATUS(status));
    receive(id, "the other one", 100, 0, 0);
    msgsnd(id, &m, 8192, 0);
    msgsnd(id, &m, 8192, 0);
    pid = fork();
    if (pid == 0)
        _exit(msgsnd(id, &m, 10, 0) == 0 ? 7 : 8);
    usleep(5000);
    receive(id, "make room", 9000, 0, 0);
    waitpid(pid, &status, 0);
    show("sender", "%d", WEXITSTATUS(status));
    pid = fork();
    if (pid == 0) {
        struct sigaction sa = {.sa_handler = nothing, .sa_flags = SA_RESTART};
        sigaction(SIGALRM, &sa, NULL);
        struct itimerval t = {{0, 2000}, {0, 2000}};
        setitimer(ITIMER_REAL, &t, NULL);
        ssize_t n = msgrcv(id, &m, 100, 77, 0);
        _exit(n == -1 && errno == EINTR ? 7 : 8);
    }
    waitpid(pid, &status, 0);
    show("receive interrupted", "%d", WEXITSTATUS(status));
    if (geteuid() == 0)
        as_user(4242, 4242, msg_other, id);
    msgctl(id, IPC_STAT, &ds);
    ds.msg_perm.mode = 0606;
    ds.msg_qbytes = 100;
    RESULT("msg set", msgctl(id, IPC_SET, &ds));
    if (geteuid() == 0)
        as_user(4242, 4242, msg_other, id);
    while (msgrcv(id, &m, 9000, 0, IPC_NOWAIT) >= 0)
        ;
    m.type = 1;
    RESULT("within 100", msgsnd(id, &m, 100, IPC_NOWAIT));
    RESULT("beyond 100", msgsnd(id, &m, 1, IPC_NOWAIT));
    RESULT("empty message in a full queue", msgsnd(id, &m, 0, IPC_NOWAIT));
    struct msginfo info;
    CHECK("MSG_INFO", msgctl(0, MSG_INFO, (struct msqid_ds *)&info) >= 0 && info.msgpool >= 1);
    show("msg limits", "%d %d", info.msgmax, info.msgmnb);
    pid = fork();
    if (pid == 0) {
        ssize_t n = msgrcv(id, &m, 100, 99, 0);
        _exit(n == -1 && errno == EIDRM ? 7 : 8);
    }
    usleep(20000);
    RESULT("msg rmid", msgctl(id, IPC_RMID, NULL));
    waitpid(pid, &status, 0);
    show("receiver of a removed queue", "%d", WEXITSTATUS(status));
    RESULT("msg gone", msgctl(id, IPC_STAT, &ds));
    RESULT("send to gone", msgsnd(id, &m, 1, 0));
}

static volatile sig_atomic_t notified, notify_code, notify_value;

static void on_notify(int signal, siginfo_t *info, void *context) {
    (void)signal, (void)context;
    notified++;
    notify_code = info->si_code;
    notify_value = info->si_value.sival_int;
}

static volatile int in_thread_value;

static void in_thread(union sigval v) { in_thread_value = v.sival_int; }

static void mq_other(int unused) {
    (void)unused;
    char name[64];
    snprintf(name, sizeof name, "/conformance-%d", getppid());
    mqd_t q = mq_open(name, O_RDONLY);
    show("mq other read", "%s", q == -1 ? strerrorname_np(errno) : "ok");
    q = mq_open(name, O_WRONLY);
    show("mq other write", "%s", q == -1 ? strerrorname_np(errno) : "ok");
    RESULT("mq other unlink", mq_unlink(name));
    struct mq_attr attr = {.mq_maxmsg = 11, .mq_msgsize = 16};
    RESULT("mq other many messages", mq_open("/conformance-other", O_CREAT | O_RDWR, 0600, &attr));
    attr = (struct mq_attr){.mq_maxmsg = 1, .mq_msgsize = 8193};
    RESULT("mq other large messages", mq_open("/conformance-other", O_CREAT | O_RDWR, 0600, &attr));
}

static void mq_get(mqd_t q, const char *name) {
    char b[8192];
    unsigned prio = 99;
    ssize_t n = mq_receive(q, b, sizeof b, &prio);
    if (n < 0)
        show(name, "-1 %s", strerrorname_np(errno));
    else
        show(name, "%.*s prio %u", (int)n, b, prio);
}

static void test_mqueue(void) {
    char name[64];
    snprintf(name, sizeof name, "/conformance-%d", getpid());
    struct mq_attr attr = {.mq_maxmsg = 4, .mq_msgsize = 32}, now;
    RESULT("mq no such", mq_open(name, O_RDWR));
    RESULT("mq empty name", mq_open("/", O_CREAT | O_RDWR, 0600, NULL));
    RESULT("mq without slash", mq_open("x", O_CREAT | O_RDWR, 0600, NULL));
    RESULT("mq two slashes", mq_open("/a/b", O_CREAT | O_RDWR, 0600, NULL));
    char longname[300];
    memset(longname, 'x', sizeof longname - 1);
    longname[0] = '/', longname[299] = 0;
    RESULT("mq long name", mq_open(longname, O_CREAT | O_RDWR, 0600, NULL));
    static const long bad[][2] = {{0, 1}, {1, 0}, {-1, 1}, {1, -1}, {1000000, 1}, {1, 100000000}};
    for (unsigned i = 0; i < 6; i++) {
        struct mq_attr a = {.mq_maxmsg = bad[i][0], .mq_msgsize = bad[i][1]};
        RESULT(CASE("mq attr %ld %ld", bad[i][0], bad[i][1]), mq_open(name, O_CREAT | O_RDWR, 0600, &a));
    }
    umask(022);
    mqd_t q = mq_open(name, O_CREAT | O_EXCL | O_RDWR | O_NONBLOCK, 0666, &attr);
    CHECK("mq_open", q >= 0);
    RESULT("mq excl", mq_open(name, O_CREAT | O_EXCL | O_RDWR, 0600, &attr));
    struct stat st;
    RESULT("mq fstat", fstat(q, &st));
    show("mq mode", "%o", st.st_mode);
    show("mq cloexec", "%d", fcntl(q, F_GETFD));
    RESULT("mq getattr", mq_getattr(q, &now));
    show("mq attr", "%ld %ld %ld %ld", now.mq_flags, now.mq_maxmsg, now.mq_msgsize, now.mq_curmsgs);
    mq_get(q, "mq empty");
    static const struct {
        const char *text;
        unsigned prio;
    } messages[] = {{"low", 1}, {"high", 5}, {"low again", 1}, {"top", 32767}, {"none", 0}};
    for (unsigned i = 0; i < 5; i++)
        RESULT(CASE("mq_send %s", messages[i].text),
               mq_send(q, messages[i].text, strlen(messages[i].text), messages[i].prio));
    RESULT("mq bad priority", mq_send(q, "x", 1, 32768));
    mq_getattr(q, &now);
    show("mq messages", "%ld", now.mq_curmsgs);
    for (int i = 0; i < 5; i++)
        mq_get(q, CASE("mq receive %d", i));
    char b[64];
    RESULT("mq too long", mq_send(q, b, 33, 0));
    RESULT("mq longest", mq_send(q, "0123456789abcdef0123456789abcdef", 32, 0));
    RESULT("mq small buffer", mq_receive(q, b, 31, NULL));
    RESULT("mq exact buffer", mq_receive(q, b, 32, NULL));
    RESULT("mq empty message", mq_send(q, "", 0, 0));
    RESULT("mq receive empty message", mq_receive(q, b, 32, NULL));
    mqd_t r = mq_open(name, O_RDONLY | O_NONBLOCK), w = mq_open(name, O_WRONLY);
    RESULT("mq send to the read end", mq_send(r, "x", 1, 0));
    RESULT("mq receive from the write end", mq_receive(w, b, 32, NULL));
    attr.mq_flags = 0;
    RESULT("mq setattr", mq_setattr(q, &attr, &now));
    show("mq flags before", "%ld", now.mq_flags);
    mq_getattr(q, &now);
    show("mq flags after", "%ld of %ld", now.mq_flags, now.mq_maxmsg);
    attr.mq_flags = 1;
    RESULT("mq bad flags", mq_setattr(q, &attr, NULL));
    struct timespec past = {1, 0}, wrong = {0, 1000000000};
    RESULT("mq receive timed out", mq_timedreceive(q, b, 32, NULL, &past));
    RESULT("mq bad time", mq_timedreceive(q, b, 32, NULL, &wrong));
    RESULT("mq send, time not needed", mq_timedsend(q, "a", 1, 0, &past));
    for (int i = 0; i < 3; i++)
        mq_send(q, "b", 1, 0);
    RESULT("mq full, timed out", mq_timedsend(q, "c", 1, 0, &past));
    RESULT("mq on something else", mq_send(0, "c", 1, 0));
    RESULT("mq bad descriptor", mq_send(-1, "c", 1, 0));
    RESULT("mq lseek", lseek(q, 0, SEEK_SET));
    RESULT("mq write", write(q, "c", 1));
    show("mq read", "%d", read(q, b, sizeof b) > 0 && strncmp(b, "QSIZE:4 ", 8) == 0);
    while (mq_receive(r, b, 32, NULL) >= 0)
        ;

    // A sleeping receiver and a sleeping sender.
    int status;
    pid_t pid = fork();
    if (pid == 0)
        _exit(mq_receive(q, b, 32, NULL) == 2 ? 7 : 8);
    usleep(5000);
    RESULT("mq send to a sleeper", mq_send(q, "hi", 2, 0));
    waitpid(pid, &status, 0);
    show("mq receiver", "%d", WEXITSTATUS(status));
    for (int i = 0; i < 4; i++)
        mq_send(q, "b", 1, 0);
    pid = fork();
    if (pid == 0)
        _exit(mq_send(q, "d", 1, 9) == 0 ? 7 : 8);
    usleep(5000);
    mq_get(q, "mq make room");
    waitpid(pid, &status, 0);
    show("mq sender", "%d", WEXITSTATUS(status));
    CHECK("mq small", mq_receive(q, b, 8, NULL) == -1 && errno == EMSGSIZE);
    attr.mq_flags = O_NONBLOCK;
    mq_setattr(q, &attr, NULL);
    while (mq_receive(q, b, 32, NULL) >= 0)
        ;

    // Notification.
    struct sigaction sa = {.sa_sigaction = on_notify, .sa_flags = SA_SIGINFO};
    sigaction(SIGUSR2, &sa, NULL);
    struct sigevent ev = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR2, .sigev_value.sival_int = 42};
    RESULT("mq_notify", mq_notify(q, &ev));
    RESULT("mq_notify again", mq_notify(q, &ev));
    mq_send(q, "n", 1, 0);
    show("mq notified", "%d code %d value %d", notified, notify_code, notify_value);
    mq_send(q, "n", 1, 0);
    show("mq notified once", "%d", notified);
    RESULT("mq_notify while not empty", mq_notify(q, &ev));
    mq_send(q, "n", 1, 0);
    show("mq not notified", "%d", notified);
    RESULT("mq_notify off", mq_notify(q, NULL));
    RESULT("mq_notify off again", mq_notify(q, NULL));
    // By a thread: the C library makes one, which a netlink socket wakes.
    while (mq_receive(q, b, 32, NULL) >= 0)
        ;
    struct sigevent thread = {.sigev_notify = SIGEV_THREAD, .sigev_notify_function = in_thread, .sigev_value.sival_int = 17};
    RESULT("mq_notify by a thread", mq_notify(q, &thread));
    RESULT("mq_notify by a thread again", mq_notify(q, &thread));
    char shown[128] = "", *kind;
    RESULT("mq text", pread(q, shown, 100, 0) > 0);
    kind = strstr(shown, "NOTIFY:");
    show("mq kind of notification", "%.9s", kind ? kind : "none");
    mq_send(q, "t", 1, 0);
    for (int i = 0; i < 500 && !in_thread_value; i++)
        usleep(10000);
    show("mq thread ran", "%d", in_thread_value);
    while (mq_receive(q, b, 32, NULL) >= 0)
        ;
    RESULT("mq_notify by a thread, to be taken back", mq_notify(q, &thread));
    RESULT("mq_notify taken back", mq_notify(q, NULL));
    int n = socket(AF_NETLINK, SOCK_RAW, 0), other = socket(AF_UNIX, SOCK_STREAM, 0);
    char cookie[32] = "thirty-one bytes of the caller ", got[64] = "";
    struct sigevent raw = {.sigev_notify = SIGEV_THREAD, .sigev_signo = n, .sigev_value.sival_ptr = cookie};
    RESULT("mq raw", syscall(SYS_mq_notify, q, &raw));
    RESULT("mq raw: nothing yet", recv(n, got, 64, MSG_DONTWAIT));
    mq_send(q, "r", 1, 0);
    RESULT("mq raw: cookie", recv(n, got, 64, MSG_DONTWAIT));
    show("mq raw: text and why", "%.31s %d", got, got[31]);
    mq_receive(q, b, 32, NULL);
    RESULT("mq raw again", syscall(SYS_mq_notify, q, &raw));
    RESULT("mq raw off", syscall(SYS_mq_notify, q, NULL));
    RESULT("mq raw: removed", recv(n, got, 64, MSG_DONTWAIT));
    show("mq raw: why", "%d", got[31]);
    raw.sigev_signo = other;
    RESULT("mq raw: no netlink socket", syscall(SYS_mq_notify, q, &raw));
    raw.sigev_signo = q;
    RESULT("mq raw: no socket", syscall(SYS_mq_notify, q, &raw));
    raw.sigev_signo = 999;
    RESULT("mq raw: no descriptor", syscall(SYS_mq_notify, q, &raw));
    raw.sigev_signo = n, raw.sigev_value.sival_ptr = (void *)8;
    RESULT("mq raw: no cookie", syscall(SYS_mq_notify, q, &raw));
    close(n), close(other);
    ev.sigev_signo = 99;
    RESULT("mq_notify bad signal", mq_notify(q, &ev));
    ev.sigev_notify = 77;
    RESULT("mq_notify bad kind", mq_notify(q, &ev));
    ev.sigev_notify = SIGEV_NONE;
    RESULT("mq_notify none", mq_notify(q, &ev));
    RESULT("mq_notify bad descriptor", mq_notify(-1, &ev));

    if (geteuid() == 0)
        as_user(4242, 4242, mq_other, 0);
    RESULT("mq_unlink", mq_unlink(name));
    RESULT("mq_unlink again", mq_unlink(name));
    RESULT("mq no such name", mq_open(name, O_RDWR));
    RESULT("mq still usable", mq_send(q, "x", 1, 0));
    RESULT("mq_close", mq_close(q));
    RESULT("mq_close again", mq_close(q));
    mq_close(r);
    mq_close(w);
}

int main(void) {
    test_shm();
    test_sem();
    test_msg();
    test_mqueue();
    return 0;
}

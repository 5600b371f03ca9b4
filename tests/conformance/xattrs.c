// Extended attributes: name spaces, sizes, flags, which files hold them, who may, what a list shows.
#include "check.h"
#include <fcntl.h>
#include <sys/wait.h>
#include <sys/xattr.h>

static char value[70000];
static char *volatile nowhere = (char *)8;
static int compare(const void *a, const void *b) { return strcmp(*(char **)a, *(char **)b); }

static void list(const char *what, const char *path, int link) {
    char names[8192], *all[256], line[3000] = "";
    ssize_t n = link ? llistxattr(path, names, sizeof names) : listxattr(path, names, sizeof names);
    int count = 0;
    for (char *p = names; n > 0 && p < names + n; p += strlen(p) + 1)
        if (strncmp(p, "security.", 9) || strstr(p, "mine"))
            all[count++] = p;
    qsort(all, count, sizeof *all, compare);
    for (int i = 0; i < count && i < 40; i++)
        strcat(strcat(line, " "), all[i]);
    show(what, "%d%s", count, line);
}

static int as_nobody(void (*what)(void)) {
    fflush(stdout);
    pid_t pid = fork();
    if (!pid) {
        if (setgid(65534) || setuid(65534))
            _exit(97);
        what();
        _exit(0);
    }
    int st;
    waitpid(pid, &st, 0);
    return WEXITSTATUS(st);
}

static void nobody(void) {
    RESULT("nobody reads user.", getxattr("file", "user.a", value, 100));
    RESULT("nobody writes user.", setxattr("file", "user.a", "x", 1, 0));
    RESULT("nobody removes user.", removexattr("file", "user.a"));
    RESULT("nobody reads trusted.", getxattr("file", "trusted.a", value, 100));
    RESULT("nobody writes trusted.", setxattr("file", "trusted.b", "x", 1, 0));
    RESULT("nobody reads security.", getxattr("file", "security.mine", value, 100));
    RESULT("nobody writes security.", setxattr("file", "security.mine", "x", 1, 0));
    list("nobody lists", "file", 0);
    RESULT("nobody reads of a closed file", getxattr("closed", "user.a", value, 100));
    RESULT("nobody lists a closed file", listxattr("closed", value, 100));
    RESULT("nobody writes its own", setxattr("own", "user.a", "x", 1, 0));
    RESULT("nobody writes a sticky directory", setxattr("sticky", "user.a", "x", 1, 0));
    RESULT("nobody writes its sticky directory", setxattr("mysticky", "user.a", "x", 1, 0));
}

int main(void) {
    scratch();
    chmod(".", 0755);
    close(open("file", O_CREAT | O_RDWR, 0644)), close(open("own", O_CREAT | O_RDWR, 0644)), close(open("closed", O_CREAT | O_RDWR, 0600));
    mkdir("dir", 0755), mkdir("sticky", 0777), mkdir("mysticky", 0777), chmod("sticky", 01777), chmod("mysticky", 01777);
    chown("own", 65534, 65534), chown("mysticky", 65534, 0);
    symlink("file", "link"), symlink("none", "dangling"), mkfifo("fifo", 0666), mknod("sock", S_IFSOCK | 0666, 0);
    static const char *files[] = {"file", "dir", "link", "fifo", "sock", "dangling", "none", "/proc/self/stat", "/dev/null"};
    static const char *names[] = {"user.a", "trusted.a", "security.mine", "system.a", "other.a", "noprefix", "user.", "trusted.", "security.", "", "user", ".a"};
    for (int f = 0; f < 9; f++)
        for (int n = 0; n < 12; n++) {
            // Devices and proc of the host may have labels and rules of their own.
            if (f >= 7 && strncmp(names[n], "user.", 5))
                continue;
            RESULT(CASE("get before %s %s", files[f], names[n]), getxattr(files[f], names[n], value, 100));
            if (f == 8)
                continue;
            RESULT(CASE("set %s %s", files[f], names[n]), setxattr(files[f], names[n], "value", 5, 0));
            RESULT(CASE("get %s %s", files[f], names[n]), getxattr(files[f], names[n], value, 100));
            RESULT(CASE("lset %s %s", files[f], names[n]), lsetxattr(files[f], names[n], "longer value", 12, 0));
            RESULT(CASE("lget %s %s", files[f], names[n]), lgetxattr(files[f], names[n], value, 100));
        }
    list("list", "file", 0);
    list("list of a directory", "dir", 0);
    list("list through a link", "link", 0);
    list("llist of a link", "link", 1);
    show("nobody", "%d", as_nobody(nobody));
    for (int n = 0; n < 12; n++) {
        RESULT(CASE("remove %s", names[n]), removexattr("file", names[n]));
        RESULT(CASE("remove again %s", names[n]), removexattr("file", names[n]));
        RESULT(CASE("lremove of the link %s", names[n]), lremovexattr("link", names[n]));
    }
    list("list", "file", 0);
    RESULT("create", setxattr("file", "user.x", "1", 1, XATTR_CREATE));
    RESULT("create again", setxattr("file", "user.x", "22", 2, XATTR_CREATE));
    RESULT("replace", setxattr("file", "user.x", "333", 3, XATTR_REPLACE));
    RESULT("replace nothing", setxattr("file", "user.y", "333", 3, XATTR_REPLACE));
    RESULT("both flags", setxattr("file", "user.y", "333", 3, XATTR_REPLACE | XATTR_CREATE));
    RESULT("unknown flag", setxattr("file", "user.y", "333", 3, 8));
    static const int sizes[] = {0, 1, 2, 3, 100};
    for (int i = 0; i < 5; i++) {
        RESULT(CASE("get with room for %d", sizes[i]), getxattr("file", "user.x", value, sizes[i]));
        RESULT(CASE("list with room for %d", sizes[i]), listxattr("dir", value, sizes[i]) > 0);
    }
    RESULT("an empty value", setxattr("file", "user.empty", "", 0, 0));
    RESULT("read", getxattr("file", "user.empty", value, 100));
    RESULT("from nowhere", setxattr("file", "user.n", nowhere, 4, 0));
    RESULT("to nowhere", getxattr("file", "user.x", nowhere, 4));
    RESULT("a name nowhere", getxattr("file", nowhere, value, 4));
    RESULT("too long a value", setxattr("file", "user.big", value, 65537, 0));
    char name[300] = "user.";
    memset(name + 5, 'n', 250);
    name[255] = 0;
    RESULT("a name of 255 bytes", setxattr("file", name, "x", 1, 0));
    name[255] = 'n', name[256] = 0;
    RESULT("a name of 256 bytes", setxattr("file", name, "x", 1, 0));
    RESULT("get a name of 256 bytes", getxattr("file", name, value, 1));
    int fd = open("file", O_RDONLY), path = open("file", O_PATH), p[2];
    pipe(p);
    RESULT("fset", fsetxattr(fd, "user.f", "ff", 2, 0));
    RESULT("fget", fgetxattr(fd, "user.f", value, 10));
    RESULT("flist", flistxattr(fd, value, 1000) > 0);
    RESULT("fremove", fremovexattr(fd, "user.f"));
    RESULT("O_PATH fget", fgetxattr(path, "user.x", value, 10));
    RESULT("O_PATH fset", fsetxattr(path, "user.x", value, 1, 0));
    RESULT("O_PATH flist", flistxattr(path, value, 1000));
    RESULT("O_PATH fremove", fremovexattr(path, "user.x"));
    RESULT("no descriptor", fgetxattr(99, "user.x", value, 10));
    RESULT("a pipe", fsetxattr(p[0], "user.x", value, 1, 0));
    RESULT("a pipe's", fgetxattr(p[0], "user.x", value, 1));
    link("file", "hard");
    RESULT("through another name", getxattr("hard", "user.x", value, 10));
    rename("file", "renamed");
    RESULT("after a rename", getxattr("renamed", "user.x", value, 10));
    struct stat before, after;
    stat("renamed", &before);
    usleep(20000);
    setxattr("renamed", "user.z", "z", 1, 0);
    stat("renamed", &after);
    show("the change time moves, the modification time does not", "%d %d",
         memcmp(&before.st_ctim, &after.st_ctim, sizeof before.st_ctim) != 0, memcmp(&before.st_mtim, &after.st_mtim, sizeof before.st_mtim) != 0);
    list("at the end", "renamed", 0);
    return 0;
}

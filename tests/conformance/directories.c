// Directories: listing, positions, many entries, changing while listing, removal, rename rules, link counts, working directories.
#include "check.h"
#include <dirent.h>
#include <fcntl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

static int compare(const void *a, const void *b) { return strcmp(*(char **)a, *(char **)b); }

static void names(const char *what, const char *path) {
    DIR *dir = opendir(path);
    if (!dir) {
        show(what, "-1 %s", strerrorname_np(errno));
        return;
    }
    char *all[256], line[3000] = "";
    int n = 0;
    for (struct dirent *e; (e = readdir(dir)) && n < 256;) {
        char *text = malloc(300);
        sprintf(text, "%s/%d", e->d_name, e->d_type);
        all[n++] = text;
    }
    closedir(dir);
    qsort(all, n, sizeof *all, compare);
    for (int i = 0; i < n && i < 30; i++)
        strcat(strcat(line, " "), all[i]), free(all[i]);
    show(what, "%d:%s", n, line);
}

static int links(const char *path) {
    struct stat s;
    return lstat(path, &s) ? -1 : (int)s.st_nlink;
}

static void touch(const char *path) { close(open(path, O_CREAT | O_WRONLY, 0644)); }

static void kinds(void) {
    names("an empty directory", (mkdir("empty", 0755), "empty"));
    mkdir("all", 0755), touch("all/file"), mkdir("all/dir", 0755), symlink("x", "all/link"), mkfifo("all/fifo", 0600), mknod("all/sock", S_IFSOCK | 0600, 0);
    names("of each kind", "all");
    names("a file", "all/file");
    names("nothing", "nothing");
    show("links of a directory", "%d with one subdirectory %d", links("empty"), links("all"));
    mkdir("all/dir2", 0755);
    show("with two", "%d", links("all"));
    rename("all/dir2", "empty/dir2");
    show("after one moved", "%d %d", links("all"), links("empty"));
    rmdir("empty/dir2");
    show("after it went", "%d", links("empty"));
    int fd = open("all", O_RDONLY);
    char b[4096];
    RESULT("getdents with no room", syscall(SYS_getdents64, fd, b, 10));
    RESULT("getdents with room for one", syscall(SYS_getdents64, fd, b, 24) > 0);
    RESULT("getdents of a file", syscall(SYS_getdents64, open("all/file", O_RDONLY), b, 4096));
    RESULT("getdents of O_PATH", syscall(SYS_getdents64, open("all", O_PATH), b, 4096));
    RESULT("getdents nowhere", syscall(SYS_getdents64, fd, 8, 4096));
    RESULT("getdents of nothing", syscall(SYS_getdents64, 99, b, 4096));
    while (syscall(SYS_getdents64, fd, b, 4096) > 0)
        ;
    RESULT("at the end", syscall(SYS_getdents64, fd, b, 4096));
    RESULT("back to the start", lseek(fd, 0, SEEK_SET));
    RESULT("and again", syscall(SYS_getdents64, fd, b, 4096) > 0);
    RESULT("write", write(fd, b, 1));
    RESULT("open to write", open("all", O_WRONLY));
    RESULT("the old call", syscall(SYS_getdents, (lseek(fd, 0, SEEK_SET), fd), b, 4096) > 0);
    close(fd);
}

static void removal(void) {
    static const char *paths[] = {"all", "all/file", "all/link", "nothing", "all/dir/.", "all/dir/..", "/", ".", "all/file/x", "", "all/dir/", "all/dir"};
    for (unsigned i = 0; i < sizeof paths / sizeof *paths; i++)
        RESULT(CASE("rmdir \"%s\"", paths[i]), rmdir(paths[i]));
    static const char *made[] = {"m", "m", "m/", "all/file/m", "nothing/m", "", ".", "..", "/", "n/", "all/link", "all/link/", "m/.", "m/n/"};
    for (unsigned i = 0; i < sizeof made / sizeof *made; i++)
        RESULT(CASE("mkdir %u \"%s\"", i, made[i]), mkdir(made[i], 0755));
    RESULT("unlinkat without AT_REMOVEDIR", unlinkat(AT_FDCWD, "m", 0));
    RESULT("AT_REMOVEDIR of a file", unlinkat(AT_FDCWD, "all/file", AT_REMOVEDIR));
    RESULT("AT_REMOVEDIR", unlinkat(AT_FDCWD, "m/n", AT_REMOVEDIR));
    mkdir("gone", 0755);
    int fd = open("gone", O_RDONLY);
    RESULT("chdir", chdir("gone"));
    RESULT("rmdir of the working directory", rmdir("../gone"));
    char b[4096];
    RESULT("getcwd", getcwd(b, sizeof b) ? 0 : -1);
    RESULT("open .", open(".", O_RDONLY) >= 0);
    RESULT("create in it", open("x", O_CREAT | O_WRONLY, 0644));
    RESULT("mkdir in it", mkdir("x", 0755));
    RESULT("symlink in it", symlink("x", "y"));
    RESULT("look in it", access("x", F_OK));
    RESULT("its parent is there", access("..", F_OK));
    struct stat s;
    fstat(fd, &s);
    show("links of it", "%d", (int)s.st_nlink);
    RESULT("getdents of it", syscall(SYS_getdents64, fd, b, 4096));
    RESULT("openat in it", openat(fd, "x", O_CREAT | O_WRONLY, 0644));
    RESULT("link into it", linkat(AT_FDCWD, "../all/file", fd, "x", 0));
    RESULT("rename into it", renameat(AT_FDCWD, "../all/file", fd, "x"));
    RESULT("chdir up", chdir(".."));
    close(fd);
}

static void renames(void) {
    mkdir("r", 0755), chdir("r");
    static const char *things[] = {"file", "empty", "full", "link", "none", "full/in", "fifo"};
    for (int a = 0; a < 7; a++)
        for (int b = 0; b < 7; b++) {
            for (int i = 6; i >= 0; i--)
                if (unlink(things[i]) && errno == EISDIR) {
                    char inner[40];
                    sprintf(inner, "%s/in", things[i]);
                    rmdir(inner), rmdir(things[i]);
                }
            touch("file"), mkdir("empty", 0755), mkdir("full", 0755), mkdir("full/in", 0755), symlink("file", "link"), mkfifo("fifo", 0600);
            RESULT(CASE("rename %s to %s", things[a], things[b]), rename(things[a], things[b]));
            show(CASE("links after %s to %s", things[a], things[b]), "%d %d %d", links("."), links("empty"), links("full"));
        }
    chdir("..");
    mkdir("from", 0755), mkdir("to", 0755), mkdir("from/a", 0755), mkdir("from/a/b", 0755), touch("from/a/b/f");
    int inside = open("from/a/b", O_RDONLY);
    RESULT("a directory moves", rename("from/a", "to/a"));
    RESULT("with what is below", access("to/a/b/f", F_OK));
    RESULT("an open one below it", faccessat(inside, "../../../to/a/b/f", F_OK, 0));
    RESULT("into what is below it", rename("to", "to/a/b/to"));
    RESULT("over what is above it", rename("to/a/b", "to"));
    chdir("to/a/b");
    RESULT("while one stands in it", rename("../../../to", "../../../moved"));
    char b[4096], *at = getcwd(b, sizeof b);
    show("which is told", "%s", at ? strstr(at, "/moved") : "-");
    chdir(scratch_path);
    close(inside);
}

static void many(void) {
    mkdir("many", 0755);
    chdir("many");
    for (int i = 0; i < 100000; i++) {
        char name[32];
        sprintf(name, "entry-%d", i);
        mknod(name, S_IFREG | 0644, 0);
    }
    chdir("..");
    static char seen[100000];
    DIR *dir = opendir("many");
    int n = 0, twice = 0;
    for (struct dirent *e; (e = readdir(dir));) {
        int i;
        if (sscanf(e->d_name, "entry-%d", &i) == 1)
            n++, twice += seen[i]++;
    }
    show("entries listed", "%d, twice %d", n, twice);
    rewinddir(dir);
    static long at[100];
    char first[100][32];
    for (int i = 0; i < 50000; i++) {
        long pos = telldir(dir);
        struct dirent *e = readdir(dir);
        if (i % 500 == 0)
            at[i / 500] = pos, strcpy(first[i / 500], e->d_name);
    }
    int right = 0;
    for (int i = 99; i >= 0; i--) {
        seekdir(dir, at[i]);
        struct dirent *e = readdir(dir);
        right += e && !strcmp(e->d_name, first[i]);
    }
    show("positions that lead back", "%d", right);
    rewinddir(dir);
    int removed = 0, fd = dirfd(dir);
    for (struct dirent *e; (e = readdir(dir));)
        if (e->d_name[0] == 'e')
            removed += unlinkat(fd, e->d_name, 0) == 0;
    show("removed while listing", "%d", removed);
    rewinddir(dir);
    for (n = 0; readdir(dir); n++)
        ;
    show("left", "%d", n);
    closedir(dir);
    RESULT("rmdir", rmdir("many"));
    mkdir("c", 0755);
    for (int i = 0; i < 500; i++) {
        char name[32];
        sprintf(name, "c/%d", i);
        touch(name);
    }
    dir = opendir("c");
    memset(seen, 0, sizeof seen);
    for (int i = 0; i < 100; i++)
        readdir(dir);
    for (int i = 500; i < 600; i++) {
        char name[32];
        sprintf(name, "c/%d", i);
        touch(name);
    }
    rewinddir(dir);
    for (struct dirent *e; (e = readdir(dir));)
        seen[atoi(e->d_name) + (e->d_name[0] == '.' ? 1000 : 0)]++;
    int once = 0;
    for (int i = 0; i < 600; i++)
        once += seen[i] == 1;
    show("all are there once after a rewind", "%d", once);
    closedir(dir);
}

int main(void) {
    scratch();
    kinds();
    removal();
    renames();
    many();
    return 0;
}

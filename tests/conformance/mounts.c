// Mounting in namespaces of the program's own: tmpfs with its limits, binds, read-only, what covers what, who may.
#include "check.h"
#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/statfs.h>
#include <sys/statvfs.h>
#include <sys/wait.h>

static void map(const char *file, unsigned id) {
    char line[64];
    int fd = open(file, O_WRONLY);
    int n = sprintf(line, "0 %u 1", id);
    if (fd >= 0 && write(fd, line, n) != n)
        perror(file);
    close(fd);
}

// A user and a mount namespace where there are such.
static void enter(void) {
    unsigned uid = getuid(), gid = getgid();
    if (unshare(CLONE_NEWUSER | CLONE_NEWNS) == 0) {
        int fd = open("/proc/self/setgroups", O_WRONLY);
        if (fd >= 0 && write(fd, "deny", 4) != 4)
            perror("setgroups");
        close(fd);
        map("/proc/self/uid_map", uid);
        map("/proc/self/gid_map", gid);
    }
    mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL);
}

static void put(const char *path, const char *text) {
    int fd = open(path, O_CREAT | O_WRONLY | O_TRUNC, 0644);
    RESULT(CASE("write %s", path), fd < 0 ? -1 : write(fd, text, strlen(text)));
    close(fd);
}

static int listed(const char *path) {
    FILE *f = fopen("/proc/self/mounts", "r");
    char line[1000];
    int n = 0;
    while (fgets(line, sizeof line, f))
        n += strstr(line, path) != NULL;
    fclose(f);
    return n;
}

static char here[200];
static const char *full(const char *name) {
    static char b[300];
    sprintf(b, "%s/%s ", here, name);
    return b;
}

static void errors(void) {
    mkdir("t", 0755);
    put("file", "f");
    RESULT("nothing to mount on", mount("none", "missing", "tmpfs", 0, NULL));
    RESULT("on a file", mount("none", "file", "tmpfs", 0, NULL));
    RESULT("an unknown type", mount("none", "t", "nosuchfs", 0, NULL));
    RESULT("no type", mount("none", "t", NULL, 0, NULL));
    RESULT("no target", mount("none", NULL, "tmpfs", 0, NULL));
    RESULT("an empty target", mount("none", "", "tmpfs", 0, NULL));
    RESULT("an unknown option", mount("none", "t", "tmpfs", 0, "colour=red"));
    RESULT("a bad size", mount("none", "t", "tmpfs", 0, "size=lots"));
    RESULT("a bad mode", mount("none", "t", "tmpfs", 0, "mode=9"));
    RESULT("bind without a source", mount(NULL, "t", NULL, MS_BIND, NULL));
    RESULT("bind of nothing", mount("missing", "t", NULL, MS_BIND, NULL));
    RESULT("bind of a file on a directory", mount("file", "t", NULL, MS_BIND, NULL));
    RESULT("bind of a directory on a file", mount("t", "file", NULL, MS_BIND, NULL));
    RESULT("remount of no mount", mount("none", "t", "tmpfs", MS_REMOUNT, NULL));
    RESULT("private of no mount", mount("none", "t", NULL, MS_PRIVATE, NULL));
    RESULT("umount of no mount", umount("t"));
    RESULT("umount of nothing", umount("missing"));
    RESULT("umount with an unknown flag", umount2("t", 64));
}

static void tmpfs(void) {
    RESULT("tmpfs", mount("source", "t", "tmpfs", 0, "size=1m,nr_inodes=10,mode=750"));
    show("listed", "%d", listed(full("t")));
    struct stat s, above;
    stat("t", &s), stat(".", &above);
    show("root", "%o, another device %d", s.st_mode, s.st_dev != above.st_dev);
    struct statfs f;
    RESULT("statfs", statfs("t", &f));
    show("blocks and files", "%ld of %ld, %ld of %ld, type %lx", (long)f.f_bfree, (long)f.f_blocks, (long)f.f_ffree, (long)f.f_files, (long)f.f_type);
    put("t/a", "hello");
    RESULT("statfs", statfs("t", &f));
    show("after a file", "%ld of %ld, %ld of %ld", (long)f.f_bfree, (long)f.f_blocks, (long)f.f_ffree, (long)f.f_files);
    RESULT("link across", link("t/a", "b"));
    RESULT("rename across", rename("t/a", "b"));
    RESULT("rename across back", rename("file", "t/b"));
    RESULT("rmdir of the mount point", rmdir("t"));
    RESULT("rename of the mount point", rename("t", "u"));
    RESULT("rename over the mount point", (mkdir("u", 0755), rename("u", "t")));
    RESULT("its parent", access("t/../file", F_OK));
    static char buffer[65536];
    int fd = open("t/big", O_CREAT | O_WRONLY, 0644);
    long done = 0;
    for (ssize_t n; (n = write(fd, buffer, sizeof buffer)) > 0;)
        done += n;
    show("full", "%ld %s", done, strerrorname_np(errno));
    RESULT("one more byte", write(fd, buffer, 1));
    RESULT("truncate", ftruncate(fd, 0));
    RESULT("there is room again", write(fd, buffer, sizeof buffer));
    close(fd);
    for (int i = 0; i < 10; i++) {
        char name[32];
        sprintf(name, "t/n%d", i);
        RESULT(CASE("inode %d", i), mkdir(name, 0755));
    }
    RESULT("remove one", rmdir("t/n0"));
    RESULT("there is an inode again", mkdir("t/again", 0755));
    RESULT("remount too small", mount("none", "t", NULL, MS_REMOUNT, "size=4k"));
    RESULT("remount larger", mount("none", "t", NULL, MS_REMOUNT, "size=2m,nr_inodes=100"));
    statfs("t", &f);
    show("blocks and files", "%ld %ld", (long)f.f_blocks, (long)f.f_files);
    fd = open("t/a", O_RDWR);
    RESULT("read only while a writer is there", mount("none", "t", NULL, MS_REMOUNT | MS_RDONLY, NULL));
    RESULT("umount while a file is open", umount("t"));
    close(fd);
    RESULT("umount while it is the working directory", (chdir("t"), umount("../t")));
    chdir(here);
    RESULT("read only", mount("none", "t", NULL, MS_REMOUNT | MS_RDONLY, NULL));
    RESULT("create", open("t/x", O_CREAT | O_WRONLY, 0644));
    RESULT("write", open("t/a", O_WRONLY));
    RESULT("read", open("t/a", O_RDONLY) >= 0 ? close(3) * 0 : -1);
    RESULT("mkdir", mkdir("t/x", 0755));
    RESULT("unlink", unlink("t/a"));
    RESULT("rename", rename("t/a", "t/z"));
    RESULT("chmod", chmod("t/a", 0600));
    RESULT("chown", chown("t/a", 0, 0));
    RESULT("utimensat", utimensat(AT_FDCWD, "t/a", NULL, 0));
    RESULT("truncate", truncate("t/a", 0));
    RESULT("symlink", symlink("x", "t/l"));
    RESULT("link", link("t/a", "t/h"));
    RESULT("access", access("t/a", W_OK));
    struct statvfs v;
    statvfs("t", &v);
    show("flags", "%lx", v.f_flag & ST_RDONLY);
    for (int n = 3; n < 20; n++)
        close(n);
    RESULT("writable", mount("none", "t", NULL, MS_REMOUNT, NULL));
    RESULT("unlink", unlink("t/a"));
    RESULT("another on top", mount("none", "t", "tmpfs", 0, NULL));
    RESULT("which hides the first", access("t/big", F_OK));
    RESULT("umount", umount("t"));
    RESULT("the first is there", access("t/big", F_OK));
    fd = open("t/big", O_RDONLY);
    RESULT("detach", umount2("t", MNT_DETACH));
    RESULT("what was open can be read", read(fd, buffer, 10));
    close(fd);
    RESULT("what was beneath", access("t/big", F_OK));
    show("listed", "%d", listed(full("t")));
    RESULT("umount again", umount("t"));
    RESULT("the mount point can go", rmdir("t"));
}

static void binds(void) {
    mkdir("src", 0755), mkdir("dst", 0755), mkdir("src/sub", 0755);
    put("src/f", "source");
    put("dst/f", "destination");
    RESULT("bind", mount("src", "dst", NULL, MS_BIND, NULL));
    struct stat a, b;
    stat("src/f", &a), stat("dst/f", &b);
    show("the same file", "%d", a.st_ino == b.st_ino && a.st_dev == b.st_dev);
    put("dst/new", "new");
    RESULT("made in both", access("src/new", F_OK));
    RESULT("removed from both", (unlink("src/new"), access("dst/new", F_OK)));
    RESULT("rmdir of the mount point", rmdir("dst"));
    RESULT("umount", umount("dst"));
    stat("dst/f", &b);
    show("what was there", "%ld", (long)b.st_size);
    put("one", "1");
    put("two", "22");
    RESULT("bind of a file", mount("one", "two", NULL, MS_BIND, NULL));
    stat("two", &b);
    show("its size", "%ld", (long)b.st_size);
    RESULT("unlink of the mount point", unlink("two"));
    RESULT("rename of the mount point", rename("two", "three"));
    RESULT("rename over the mount point", rename("src/f", "two"));
    RESULT("umount of a file", umount("two"));
    stat("two", &b);
    show("its size", "%ld", (long)b.st_size);
    RESULT("unlink", unlink("two"));
    symlink("src", "link");
    RESULT("umount through a link", umount("link"));
    RESULT("on a link's target", mount("none", "link", "tmpfs", 0, NULL));
    RESULT("which covers it", access("src/f", F_OK));
    RESULT("UMOUNT_NOFOLLOW", umount2("link", UMOUNT_NOFOLLOW));
    RESULT("umount", umount("link"));
    RESULT("and it is back", access("src/f", F_OK));
}

int main(void) {
    enter();
    scratch();
    if (!getcwd(here, sizeof here))
        return 96;
    errors();
    tmpfs();
    binds();
    return 0;
}

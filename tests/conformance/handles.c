// File handles (name_to_handle_at, open_by_handle_at) and FS_IOC_FIEMAP, in memory: /dev/shm has handles and no FIEMAP natively.
#include "check.h"
#include <fcntl.h>
#include <linux/fiemap.h>
#include <linux/fs.h>
#include <sys/ioctl.h>

struct handle {
    unsigned bytes;
    int type;
    unsigned char data[128];
};

static int get(int dir, const char *path, struct handle *h, int *mount, int flags) {
    return name_to_handle_at(dir, path, (struct file_handle *)h, mount, flags);
}

static int put(int mount, struct handle *h, int flags) {
    return open_by_handle_at(mount, (struct file_handle *)h, flags);
}

static void kinds(void) {
    static const char *const names[] = {"file", "dir", "dir/inner", "link", "hard"};
    int here = open(".", O_RDONLY), mount, mounts[5];
    struct handle h[5];
    for (int i = 0; i < 5; i++) {
        h[i].bytes = sizeof h[i].data;
        RESULT(CASE("handle of %s", names[i]), get(AT_FDCWD, names[i], &h[i], &mounts[i], 0));
        CHECK(CASE("%s has bytes and a mount", names[i]), h[i].bytes > 0 && h[i].bytes <= 128 && mounts[i] == mounts[0]);
        int fd = put(here, &h[i], O_PATH);
        WORKS(CASE("open %s by its handle, O_PATH", names[i]), fd);
        struct stat a, b;
        CHECK(CASE("%s is the same", names[i]), fstat(fd, &a) == 0 && lstat(names[i], &b) == 0 && a.st_ino == b.st_ino);
        close(fd);
        fd = put(AT_FDCWD, &h[i], O_RDONLY);
        if (fd < 0)
            RESULT(CASE("open %s for reading", names[i]), fd);
        else
            CHECK(CASE("open %s for reading", names[i]), close(fd) == 0);
        RESULT(CASE("open %s as a directory", names[i]), (fd = put(here, &h[i], O_DIRECTORY)) < 0 ? -1 : 0);
        close(fd);
    }
    CHECK("a hard link has the same handle", h[0].bytes == h[4].bytes && memcmp(h[0].data, h[4].data, h[0].bytes) == 0);
    CHECK("others have other handles", memcmp(h[0].data, h[1].data, h[0].bytes) != 0);
    struct handle followed = {.bytes = 128}, empty = {.bytes = 128};
    RESULT("followed link", get(AT_FDCWD, "link", &followed, &mount, AT_SYMLINK_FOLLOW));
    CHECK("is the file", memcmp(followed.data, h[0].data, h[0].bytes) == 0);
    int fd = open("file", O_RDONLY);
    RESULT("empty path", get(fd, "", &empty, &mount, AT_EMPTY_PATH));
    CHECK("is the file too", memcmp(empty.data, h[0].data, h[0].bytes) == 0);
    close(fd);
    // A renamed file keeps its handle; a removed one has lost it.
    rename("file", "moved");
    fd = put(here, &h[0], O_RDWR);
    WORKS("open a renamed file", fd);
    RESULT("write it", write(fd, "12345", 5));
    close(fd);
    rename("moved", "file");
    struct stat st;
    RESULT("stat", stat("file", &st));
    show("size", "%ld", (long)st.st_size);
    unlink("dir/inner");
    RESULT("open a removed file", put(here, &h[2], O_RDONLY));
    close(here);
}

static void errors(void) {
    struct handle h = {.bytes = 128};
    int mount;
    RESULT("no such file", get(AT_FDCWD, "nothing", &h, &mount, 0));
    RESULT("unknown flag", get(AT_FDCWD, "file", &h, &mount, 0x8000));
    RESULT("bad directory", get(99, "file", &h, &mount, 0));
    RESULT("empty path without the flag", get(AT_FDCWD, "", &h, &mount, 0));
    RESULT("no handle", name_to_handle_at(AT_FDCWD, "file", (void *)8, &mount, 0));
    RESULT("no place for the mount", name_to_handle_at(AT_FDCWD, "file", (void *)&h, (void *)8, 0));
    h.bytes = 129;
    RESULT("too much room", get(AT_FDCWD, "file", &h, &mount, 0));
    h.bytes = 0;
    RESULT("no room", get(AT_FDCWD, "file", &h, &mount, 0));
    CHECK("how much it takes is told", h.bytes > 0 && h.bytes <= 128);
    RESULT("enough room", get(AT_FDCWD, "file", &h, &mount, 0));
    RESULT("bad mount", put(99, &h, O_RDONLY));
    RESULT("nothing to read", open_by_handle_at(AT_FDCWD, (void *)8, O_RDONLY));
    struct handle bad = h;
    bad.bytes = 0;
    RESULT("empty handle", put(AT_FDCWD, &bad, O_RDONLY));
    bad.bytes = 129;
    RESULT("long handle", put(AT_FDCWD, &bad, O_RDONLY));
    bad = h;
    memset(bad.data, 0xee, bad.bytes);
    RESULT("nobody's handle", put(AT_FDCWD, &bad, O_RDONLY));
    h.bytes = 128;
    RESULT("proc has none", get(AT_FDCWD, "/proc/self/stat", &h, &mount, 0));
    int p[2];
    if (pipe(p) == 0)
        RESULT("a pipe has none", get(p[0], "", &h, &mount, AT_EMPTY_PATH));
}

static void extents(void) {
    struct { struct fiemap map; struct fiemap_extent extents[8]; } f;
    memset(&f, 0, sizeof f);
    f.map.fm_length = ~0ULL;
    int p[2];
    if (pipe(p) == 0)
        RESULT("FIEMAP of a pipe", ioctl(p[0], FS_IOC_FIEMAP, &f));
    RESULT("FIEMAP of a directory", ioctl(open("/dev/shm", O_RDONLY), FS_IOC_FIEMAP, &f));
    RESULT("FIEMAP of nothing", ioctl(99, FS_IOC_FIEMAP, &f));
}

int main(void) {
    char path[] = "/dev/shm/handles-XXXXXX";
    if (!mkdtemp(path) || chdir(path) != 0)
        return 1;
    close(open("file", O_CREAT | O_RDWR, 0644));
    mkdir("dir", 0755);
    close(open("dir/inner", O_CREAT | O_RDWR, 0644));
    if (symlink("file", "link") != 0 || link("file", "hard") != 0)
        return 1;
    errors();
    kinds();
    extents();
    char command[64];
    snprintf(command, sizeof command, "rm -rf %s", path);
    return system(command) != 0;
}

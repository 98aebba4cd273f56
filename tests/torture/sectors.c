/* A disk that cannot read some of what it holds: preloaded into a process, it answers EIO to reads of the file whose
   device and inode stand in the file that TORTURE_SECTORS names, two int64, zeros for none, beyond its first 12 KiB. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

#define READABLE 12288

static volatile int64_t *bad;

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("TORTURE_SECTORS");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0) return;
    void *page = mmap(NULL, 2 * sizeof(int64_t), PROT_READ, MAP_SHARED, file, 0);
    close(file);
    if (page != MAP_FAILED) bad = page;
}

static int refused(int descriptor, off_t end) {
    struct stat found;
    if (!bad || !bad[1] || end <= READABLE || fstat(descriptor, &found)) return 0;
    if ((int64_t)found.st_dev != bad[0] || (int64_t)found.st_ino != bad[1]) return 0;
    errno = EIO;
    return 1;
}

static off_t after(int descriptor, size_t count) { return bad && bad[1] ? lseek(descriptor, 0, SEEK_CUR) + (off_t)count : 0; }

#define REAL(name, type) \
    static __typeof__(type) *real; \
    if (!real) real = (__typeof__(type) *)dlsym(RTLD_NEXT, name)

ssize_t pread64(int descriptor, void *buffer, size_t count, off_t offset) {
    REAL("pread64", ssize_t(int, void *, size_t, off_t));
    return refused(descriptor, offset + (off_t)count) ? -1 : real(descriptor, buffer, count, offset);
}

ssize_t pread(int descriptor, void *buffer, size_t count, off_t offset) {
    return pread64(descriptor, buffer, count, offset);
}

ssize_t read(int descriptor, void *buffer, size_t count) {
    REAL("read", ssize_t(int, void *, size_t));
    return refused(descriptor, after(descriptor, count)) ? -1 : real(descriptor, buffer, count);
}

ssize_t sendfile64(int target, int source, off_t *offset, size_t count) {
    REAL("sendfile64", ssize_t(int, int, off_t *, size_t));
    return refused(source, READABLE + 1) ? -1 : real(target, source, offset, count);
}

ssize_t sendfile(int target, int source, off_t *offset, size_t count) {
    return sendfile64(target, source, offset, count);
}

ssize_t copy_file_range(int source, off_t *from, int target, off_t *to, size_t count, unsigned flags) {
    REAL("copy_file_range", ssize_t(int, off_t *, int, off_t *, size_t, unsigned));
    return refused(source, READABLE + 1) ? -1 : real(source, from, target, to, count, flags);
}

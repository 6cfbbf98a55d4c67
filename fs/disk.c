/* The real disk: system calls, repeated where they were interrupted or did a part. */
#include "disk.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int real_open(void *context, const char *path, int flags)
{
    (void)context;
    assert(!(flags & ~(O_ACCMODE | O_CREAT | O_EXCL)));
    int file = open(path, flags | O_CLOEXEC | O_NOFOLLOW, 0600);
    return file < 0 ? -errno : file;
}

static void real_close(void *context, int file)
{
    (void)context;
    close(file);
}

static int real_size(void *context, int file, uint64_t *ret_size)
{
    (void)context;
    struct stat status;
    if (fstat(file, &status) < 0)
        return -errno;
    *ret_size = (uint64_t)status.st_size;
    return 0;
}

static int real_read(void *context, int file, void *buffer, size_t len, uint64_t offset)
{
    (void)context;
    char *to = buffer;
    while (len) {
        ssize_t done = pread(file, to, len, (off_t)offset);
        if (done < 0 && errno == EINTR)
            continue;
        if (done < 0)
            return -errno;
        if (done == 0)
            return -EIO; /* the file is shorter than it was */
        to += done;
        len -= (size_t)done;
        offset += (uint64_t)done;
    }
    return 0;
}

static int real_write(void *context, int file, const void *data, size_t len, uint64_t offset)
{
    (void)context;
    const char *from = data;
    while (len) {
        ssize_t done = pwrite(file, from, len, (off_t)offset);
        if (done < 0 && errno == EINTR)
            continue;
        if (done < 0)
            return -errno;
        if (done == 0)
            return -EIO;
        from += done;
        len -= (size_t)done;
        offset += (uint64_t)done;
    }
    return 0;
}

static int real_allocate(void *context, int file, uint64_t offset, uint64_t len)
{
    (void)context;
    int error;
    do
        error = posix_fallocate(file, (off_t)offset, (off_t)len);
    while (error == EINTR);
    return -error;
}

static int real_truncate(void *context, int file, uint64_t size)
{
    (void)context;
    return ftruncate(file, (off_t)size) < 0 ? -errno : 0;
}

/* Not repeated, not even after EINTR: a second call may say that all is well when it is not. */
static int real_sync(void *context, int file)
{
    (void)context;
    return fdatasync(file) < 0 ? -errno : 0;
}

static int real_sync_directory(void *context, const char *path)
{
    (void)context;
    int error = 0;
    int file = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (file < 0)
        return -errno;
    if (fsync(file) < 0)
        error = -errno;
    close(file);
    return error;
}

static int real_rename(void *context, const char *from, const char *to)
{
    (void)context;
    return rename(from, to) < 0 ? -errno : 0;
}

static int real_unlink(void *context, const char *path)
{
    (void)context;
    return unlink(path) < 0 ? -errno : 0;
}

static int real_list(void *context, const char *path, disk_visitor *visitor, void *visitor_context)
{
    (void)context;
    DIR *directory = opendir(path);
    if (!directory)
        return -errno;
    struct dirent *entry;
    while (errno = 0, (entry = readdir(directory)) != NULL) {
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            visitor(visitor_context, entry->d_name);
    }
    int error = -errno;
    closedir(directory);
    return error;
}

const struct disk disk_real = {
    .open = real_open,
    .close = real_close,
    .size = real_size,
    .read = real_read,
    .write = real_write,
    .allocate = real_allocate,
    .truncate = real_truncate,
    .sync = real_sync,
    .sync_directory = real_sync_directory,
    .rename = real_rename,
    .unlink = real_unlink,
    .list = real_list,
};

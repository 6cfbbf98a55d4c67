/*
 * LD_PRELOAD: the kernel's FUSE_INIT request arrives without some of its flags, as from a kernel
 * that cannot forward locks. $LOCKFS_TEST_STRIP is the mask of the flags to take away.
 */
#include <linux/fuse.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

ssize_t __read_chk(int fd, void *buffer, size_t size, size_t buffer_size);

static ssize_t strip(ssize_t got, void *buffer)
{
    const char *mask = getenv("LOCKFS_TEST_STRIP");
    struct fuse_in_header header;
    struct fuse_init_in init;
    /* Older kernels send less of fuse_init_in than the header here knows. */
    const size_t needed = offsetof(struct fuse_init_in, flags) + sizeof(init.flags);
    if (!mask || got < (ssize_t)(sizeof(header) + needed))
        return got;
    memcpy(&header, buffer, sizeof(header));
    if (header.opcode != FUSE_INIT || header.len != (size_t)got)
        return got;
    char *body = (char *)buffer + sizeof(header);
    memcpy(&init, body, needed);
    init.flags &= ~(uint32_t)strtoul(mask, NULL, 0);
    memcpy(body, &init, needed);
    return got;
}

ssize_t read(int fd, void *buffer, size_t size)
{
    return strip(syscall(SYS_read, fd, buffer, size), buffer);
}

ssize_t __read_chk(int fd, void *buffer, size_t size, size_t buffer_size)
{
    (void)buffer_size;
    return read(fd, buffer, size);
}

ssize_t readv(int fd, const struct iovec *vector, int count)
{
    ssize_t got = syscall(SYS_readv, fd, vector, count);
    return count == 1 ? strip(got, vector[0].iov_base) : got;
}

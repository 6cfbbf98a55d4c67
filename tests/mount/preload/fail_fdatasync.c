/* LD_PRELOAD: fdatasync(2) fails with EIO as soon as the file $LOCKFS_TEST_FLAG exists. */
#include <errno.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

int fdatasync(int fd)
{
    const char *flag = getenv("LOCKFS_TEST_FLAG");
    if (flag && access(flag, F_OK) == 0) {
        errno = EIO;
        return -1;
    }
    return (int)syscall(SYS_fdatasync, fd);
}

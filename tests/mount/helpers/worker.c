/*
 * worker LOCK JOURNAL SEED: takes the lock LOCK (a directory), by O_EXCL and by flock in turn,
 * again and again until SIGTERM, whatever happens to the daemon. Each grant is a line of JOURNAL:
 *
 *     TOKEN BEFORE AFTER END HOW
 *
 * the number, and CLOCK_MONOTONIC in nanoseconds just before the request, just after the grant, and
 * at the end of its use, before the release. A last line tells what else happened:
 *
 *     # grants N refusals N failures N unexpected ERRNO
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "fs/lockfs.h"

static volatile sig_atomic_t stopped;

static void on_sigterm(int number)
{
    (void)number;
    stopped = 1;
}

static uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

/* What a daemon that dies, is dead, or comes back may answer. */
static int is_expected(int error)
{
    return error == ENOTCONN || error == ECONNABORTED || error == ENOENT || error == EROFS ||
           error == ESTALE || error == EINTR;
}

struct counts {
    long grants;
    long refusals;
    long failures;
    int unexpected;
};

static void count_error(struct counts *counts, int error)
{
    if (error == EEXIST || error == EWOULDBLOCK)
        counts->refusals++;
    else if (is_expected(error))
        counts->failures++;
    else
        counts->unexpected = error;
}

static int take(const char *lock, unsigned how)
{
    char path[4096];
    if (how == 0) {
        snprintf(path, sizeof(path), "%s/claim", lock);
        return open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    }
    snprintf(path, sizeof(path), "%s/file", lock);
    int fd = open(path, O_RDONLY | O_CREAT | O_CLOEXEC, 0644);
    if (fd >= 0 && flock(fd, how == 1 ? LOCK_EX : LOCK_EX | LOCK_NB) != 0) {
        int error = errno;
        close(fd);
        errno = error;
        return -1;
    }
    return fd;
}

int main(int argc, char **argv)
{
    if (argc != 4) {
        fprintf(stderr, "usage: worker LOCK JOURNAL SEED\n");
        return 2;
    }
    struct sigaction action = {.sa_handler = on_sigterm};
    sigaction(SIGTERM, &action, NULL);
    FILE *journal = fopen(argv[2], "w");
    if (!journal) {
        perror(argv[2]);
        return 1;
    }
    unsigned seed = (unsigned)atoi(argv[3]);
    struct counts counts = {0};
    while (!stopped) {
        unsigned how = (unsigned)rand_r(&seed) % 3;
        uint64_t before = now_ns();
        int fd = take(argv[1], how);
        uint64_t after = now_ns();
        if (fd < 0) {
            count_error(&counts, errno);
            usleep((unsigned)rand_r(&seed) % 2000);
            continue;
        }
        uint64_t token;
        if (ioctl(fd, LOCKFS_IOC_TOKEN, &token) == 0) {
            if (rand_r(&seed) % 4 == 0)
                usleep((unsigned)rand_r(&seed) % 1000);
            uint64_t end = now_ns();
            fprintf(journal, "%" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 " %u\n",
                    (uint64_t)token, before, after, end, how);
            counts.grants++;
        } else {
            count_error(&counts, errno);
        }
        close(fd);
    }
    fprintf(journal, "# grants %ld refusals %ld failures %ld unexpected %d\n", counts.grants,
            counts.refusals, counts.failures, counts.unexpected);
    return fclose(journal) == 0 ? 0 : 1;
}

/*
 * churn DIRECTORY PROCESSES CYCLES: takes and gives back locks as fast as it can, CYCLES in all: by
 * O_EXCL, by flock on a file that is opened each time, by flock on one that stays open, and by
 * mkdir and rmdir with a claim inside. Each process has a lock of its own in DIRECTORY.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static void check(int result, const char *what)
{
    if (result < 0) {
        fprintf(stderr, "churn: %s: %s\n", what, strerror(errno));
        exit(1);
    }
}

static void by_create(int dir, const char *name)
{
    int fd = openat(dir, name, O_WRONLY | O_CREAT | O_EXCL, 0644);
    check(fd, "create");
    check((int)write(fd, "content\n", 8), "write");
    check(close(fd), "close");
}

static void by_flock(int dir, const char *name)
{
    int fd = openat(dir, name, O_RDONLY | O_CREAT, 0644);
    check(fd, "open");
    check(flock(fd, LOCK_EX), "flock");
    check(close(fd), "close");
}

static void by_mkdir(int dir, const char *name)
{
    check(mkdirat(dir, name, 0755), "mkdir");
    int inner = openat(dir, name, O_RDONLY | O_DIRECTORY);
    check(inner, "opendir");
    by_create(inner, "x");
    check(close(inner), "closedir");
    check(unlinkat(dir, name, AT_REMOVEDIR), "rmdir");
}

static void work(const char *directory, long cycles)
{
    char path[4096];
    char name[64];
    snprintf(path, sizeof(path), "%s/churn-%ld", directory, (long)getpid());
    check(mkdir(path, 0755), path);
    int dir = open(path, O_RDONLY | O_DIRECTORY);
    check(dir, path);
    int kept = openat(dir, "kept", O_RDONLY | O_CREAT, 0644);
    check(kept, "kept");
    for (long i = 0; i < cycles; i++) {
        /* Some names come again, some are new. */
        snprintf(name, sizeof(name), "x%ld", i % 3 ? i % 50 : i);
        switch (i % 8) {
        case 0:
        case 1:
        case 2:
            by_create(dir, name);
            break;
        case 3:
        case 4:
            by_flock(dir, name);
            break;
        case 5:
        case 6:
            check(flock(kept, i % 16 < 8 ? LOCK_EX : LOCK_SH), "flock");
            check(flock(kept, LOCK_UN), "unlock");
            break;
        default:
            by_mkdir(dir, name);
        }
    }
    check(close(kept), "close");
    check(close(dir), "close");
    check(rmdir(path), path);
}

int main(int argc, char **argv)
{
    if (argc != 4) {
        fprintf(stderr, "usage: churn DIRECTORY PROCESSES CYCLES\n");
        return 2;
    }
    int processes = atoi(argv[2]);
    for (int i = 0; i < processes; i++) {
        pid_t pid = fork();
        check(pid, "fork");
        if (pid == 0) {
            work(argv[1], atol(argv[3]) / processes);
            _exit(0);
        }
    }
    int failures = 0;
    int status;
    while (wait(&status) > 0)
        failures += status != 0;
    return failures ? 1 : 0;
}

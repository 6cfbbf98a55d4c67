/*
 * counter LOCK COUNTER PROCESSES ROUNDS: so many processes, each of which so many times locks the
 * file LOCK by flock(2), reads the number in the file COUNTER, writes it back plus one, and
 * unlocks. Nothing but the lock keeps an update from being lost. Prints how often a lock had to be
 * waited for, and how often two processes were inside at once.
 */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

struct shared {
    atomic_int ready;
    atomic_int inside;
    atomic_long waits;
    atomic_long overlaps;
};

static void fail(const char *what)
{
    fprintf(stderr, "counter: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void add_one(int fd)
{
    char text[32] = "";
    if (pread(fd, text, sizeof(text) - 1, 0) < 0)
        fail("read");
    long number = strtol(text, NULL, 10);
    sched_yield();
    int len = snprintf(text, sizeof(text), "%ld\n", number + 1);
    if (pwrite(fd, text, (size_t)len, 0) != len)
        fail("write");
}

static void work(struct shared *shared, const char *lock, const char *counter, int processes,
                 int rounds)
{
    int lock_fd = open(lock, O_RDONLY | O_CREAT | O_CLOEXEC, 0666);
    int counter_fd = open(counter, O_RDWR | O_CLOEXEC);
    if (lock_fd < 0 || counter_fd < 0)
        fail("open");
    atomic_fetch_add(&shared->ready, 1);
    while (atomic_load(&shared->ready) < processes)
        usleep(1000);
    for (int i = 0; i < rounds; i++) {
        if (flock(lock_fd, LOCK_EX | LOCK_NB) != 0) {
            if (errno != EWOULDBLOCK)
                fail("flock LOCK_NB");
            atomic_fetch_add(&shared->waits, 1);
            if (flock(lock_fd, LOCK_EX) != 0)
                fail("flock");
        }
        if (atomic_fetch_add(&shared->inside, 1) != 0)
            atomic_fetch_add(&shared->overlaps, 1);
        add_one(counter_fd);
        atomic_fetch_sub(&shared->inside, 1);
        if (flock(lock_fd, LOCK_UN) != 0)
            fail("flock LOCK_UN");
    }
}

int main(int argc, char **argv)
{
    if (argc != 5) {
        fprintf(stderr, "usage: counter LOCK COUNTER PROCESSES ROUNDS\n");
        return 2;
    }
    int processes = atoi(argv[3]);
    struct shared *shared =
        mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED)
        fail("mmap");
    for (int i = 0; i < processes; i++) {
        pid_t pid = fork();
        if (pid < 0)
            fail("fork");
        if (pid == 0) {
            work(shared, argv[1], argv[2], processes, atoi(argv[4]));
            _exit(0);
        }
    }
    int failures = 0;
    int status;
    while (wait(&status) > 0)
        failures += status != 0;
    printf("waits %ld overlaps %ld failures %d\n", atomic_load(&shared->waits),
           atomic_load(&shared->overlaps), failures);
    return failures ? 1 : 0;
}

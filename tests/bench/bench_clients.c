/*
 * The clients of the benchmark: processes that lock and unlock, on whatever filesystem DIR is.
 *
 *     bench_clients MODE CLIENTS SECONDS CYCLES DIR
 *
 * Runs for SECONDS, or for CYCLES cycles of each client where that is not 0. A cycle is
 *     flock-kept   flock and unlock of a file that stays open, one for each client
 *     flock-open   open, flock, close, the same
 *     flock-dirs   the same, in a directory for each client
 *     excl         open with O_CREAT|O_EXCL and close, in a directory for each client
 *     handoff      flock and unlock of one file that all clients wait for
 *     kill         a holder is killed (SIGKILL) while another process waits for its lock
 *     spawn        `flock FILE true`, as processes
 *
 * Prints one line of name=value pairs. Times are of CLOCK_MONOTONIC, in microseconds, percentiles
 * are exact, over the cycles of all clients. `rate` is cycles per second; of handoff only those in
 * which the lock came from another client. A cycle that fails is counted in `errors`.
 */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <spawn.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum {
    CLIENTS_MAX = 1024,
    SAMPLES_ALL = 1 << 24,
    SAMPLES_MAX = 1 << 21,
    CYCLES_WARM = 3,
    /* Long enough for a request to get from the kernel into the queue. */
    SETTLE_MS = 20,
};

enum phase {
    PHASE_ACQUIRE,
    PHASE_RELEASE,
    PHASE_CYCLE,
    PHASES,
};

static const char *const phase_names[PHASES] = {"acquire", "release", "cycle"};

struct client {
    uint64_t cycles;
    uint64_t elapsed_ns;
    uint64_t errors;
    int last_errno;
};

struct shared {
    atomic_uint arrived;
    atomic_bool go;
    /* Written by who holds the lock of `handoff`. */
    atomic_int holder;
    atomic_uint inside;
    atomic_uint_fast64_t handoffs;
    atomic_uint overlaps;
    atomic_uint_fast64_t granted_ns;
    struct client clients[CLIENTS_MAX];
};

struct bench {
    const char *mode;
    int clients;
    double seconds;
    uint64_t cycles;
    const char *dir;
    size_t samples_max; /* of one client */
    struct shared *shared;
    uint32_t *samples; /* nanoseconds, by client, phase, cycle */
};

static uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static void die(const char *what)
{
    fprintf(stderr, "bench_clients: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void *take_shared(size_t bytes)
{
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                        MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED)
        die("mmap");
    return memory;
}

static uint32_t *samples_of(const struct bench *bench, int client, enum phase phase)
{
    return bench->samples + ((size_t)client * PHASES + phase) * bench->samples_max;
}

/* One client */

struct place {
    char path[4096];
    int fd;
};

static bool is(const struct bench *bench, const char *mode)
{
    return strcmp(bench->mode, mode) == 0;
}

/* What stays over all cycles: a directory, or an open file. */
static void settle_in(const struct bench *bench, int number, struct place *ret_place)
{
    bool has_directory = is(bench, "excl") || is(bench, "flock-dirs");
    int who = is(bench, "handoff") ? 0 : number;

    ret_place->fd = -1;
    snprintf(ret_place->path, sizeof ret_place->path, "%s/%s-%d", bench->dir, bench->mode, who);
    if (has_directory) {
        if (mkdir(ret_place->path, 0755) != 0 && errno != EEXIST)
            die(ret_place->path);
        strcat(ret_place->path, "/claim");
    } else if (!is(bench, "flock-open")) {
        ret_place->fd = open(ret_place->path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
        if (ret_place->fd < 0)
            die(ret_place->path);
    }
}

static void note_holder(struct shared *shared, int number)
{
    if (atomic_fetch_add(&shared->inside, 1) != 0)
        atomic_fetch_add(&shared->overlaps, 1);
    if (atomic_exchange(&shared->holder, number) != number)
        atomic_fetch_add(&shared->handoffs, 1);
    atomic_fetch_sub(&shared->inside, 1);
}

/* One cycle. Stores when it began, held, and ended. Returns 0 or an errno. */
static int cycle(const struct bench *bench, const struct place *place, int number,
                 uint64_t ret_ns[3])
{
    bool excl = is(bench, "excl");
    int fd = place->fd;
    bool kept = fd >= 0;
    int error = 0;

    ret_ns[0] = now_ns();
    if (!kept) {
        int flags = excl ? O_WRONLY | O_CREAT | O_EXCL : O_RDONLY | O_CREAT;
        fd = open(place->path, flags | O_CLOEXEC, 0666);
        if (fd < 0)
            return errno;
    }
    if (!excl && flock(fd, LOCK_EX) != 0)
        error = errno;
    ret_ns[1] = now_ns();
    if (!error && is(bench, "handoff"))
        note_holder(bench->shared, number);
    if (!kept)
        close(fd);
    else if (!error && flock(fd, LOCK_UN) != 0)
        error = errno;
    ret_ns[2] = now_ns();
    return error;
}

static uint32_t clamp(uint64_t ns)
{
    return ns < UINT32_MAX ? (uint32_t)ns : UINT32_MAX;
}

static void run_client(const struct bench *bench, int number)
{
    struct client *self = &bench->shared->clients[number];
    uint64_t limit = bench->cycles ? bench->cycles : UINT64_MAX;
    uint64_t ns[3];
    struct place place;

    settle_in(bench, number, &place);
    if (!is(bench, "handoff")) /* whose clients would wait for those that have not arrived */
        for (int i = 0; i < CYCLES_WARM && !bench->cycles; i++)
            (void)cycle(bench, &place, number, ns);
    atomic_fetch_add(&bench->shared->arrived, 1);
    while (!atomic_load(&bench->shared->go))
        usleep(200);

    uint64_t begin = now_ns();
    uint64_t end = begin + (uint64_t)(bench->seconds * 1e9);
    uint64_t now = begin;
    while (self->cycles < limit && self->cycles < bench->samples_max && now < end) {
        int error = cycle(bench, &place, number, ns);
        if (error) {
            self->errors++;
            self->last_errno = error;
            now = now_ns();
            continue;
        }
        samples_of(bench, number, PHASE_ACQUIRE)[self->cycles] = clamp(ns[1] - ns[0]);
        samples_of(bench, number, PHASE_RELEASE)[self->cycles] = clamp(ns[2] - ns[1]);
        samples_of(bench, number, PHASE_CYCLE)[self->cycles] = clamp(ns[2] - ns[0]);
        self->cycles++;
        now = ns[2];
    }
    self->elapsed_ns = now - begin;
}

/* All clients */

static pid_t fork_child(void)
{
    pid_t parent = getpid();
    pid_t pid = fork();

    if (pid < 0)
        die("fork");
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent)
            _exit(1);
    }
    return pid;
}

static int compare(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a;
    uint32_t y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

static double percentile_us(const uint32_t *sorted, size_t count, double part)
{
    if (!count)
        return 0;
    size_t at = (size_t)(part * (double)(count - 1) + 0.5);
    return sorted[at] / 1000.0;
}

static void print_percentiles(const char *name, uint32_t *samples, size_t count)
{
    qsort(samples, count, sizeof *samples, compare);
    printf(" %s_p50_us=%.1f %s_p99_us=%.1f", name, percentile_us(samples, count, 0.5), name,
           percentile_us(samples, count, 0.99));
}

static void print_phase(const struct bench *bench, enum phase phase, size_t count)
{
    uint32_t *merged = malloc((count + 1) * sizeof *merged);
    size_t used = 0;

    if (!merged)
        die("malloc");
    for (int i = 0; i < bench->clients; i++) {
        size_t part = bench->shared->clients[i].cycles;
        memcpy(merged + used, samples_of(bench, i, phase), part * sizeof *merged);
        used += part;
    }
    print_percentiles(phase_names[phase], merged, used);
    free(merged);
}

static void run_clients(struct bench *bench)
{
    struct shared *shared = bench->shared;
    uint64_t cycles = 0;
    uint64_t errors = 0;
    uint64_t longest_ns = 0;
    double rate = 0;
    int last_errno = 0;

    bench->samples_max = SAMPLES_ALL / (size_t)bench->clients;
    if (bench->samples_max > SAMPLES_MAX)
        bench->samples_max = SAMPLES_MAX;
    bench->samples =
        take_shared((size_t)bench->clients * PHASES * bench->samples_max * sizeof *bench->samples);
    atomic_store(&shared->holder, -1);
    for (int i = 0; i < bench->clients; i++) {
        if (fork_child() == 0) {
            run_client(bench, i);
            _exit(0);
        }
    }
    while (atomic_load(&shared->arrived) < (unsigned)bench->clients) {
        if (waitpid(-1, NULL, WNOHANG) != 0)
            exit(1); /* it has said why */
        usleep(1000);
    }
    atomic_store(&shared->go, true);
    while (wait(NULL) > 0 || errno == EINTR)
        ;

    for (int i = 0; i < bench->clients; i++) {
        const struct client *client = &shared->clients[i];
        cycles += client->cycles;
        errors += client->errors;
        last_errno = client->last_errno ? client->last_errno : last_errno;
        longest_ns = client->elapsed_ns > longest_ns ? client->elapsed_ns : longest_ns;
        if (client->elapsed_ns)
            rate += (double)client->cycles * 1e9 / (double)client->elapsed_ns;
    }
    if (is(bench, "handoff")) {
        uint64_t handoffs = atomic_load(&shared->handoffs);
        rate = longest_ns ? (double)handoffs * 1e9 / (double)longest_ns : 0;
        printf("handoffs=%" PRIu64 " overlaps=%u ", handoffs, atomic_load(&shared->overlaps));
    }
    printf("cycles=%" PRIu64 " rate=%.1f errors=%" PRIu64 " errno=%d", cycles, rate, errors,
           last_errno);
    for (enum phase phase = 0; phase < PHASES; phase++)
        print_phase(bench, phase, cycles);
    printf("\n");
}

/* kill */

static void sleep_ms(long ms)
{
    struct timespec time = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};
    nanosleep(&time, NULL);
}

/* Takes the lock, says when, and keeps it (the holder) or ends (the waiter). */
static pid_t fork_taker(const struct bench *bench, const char *path, bool keeps)
{
    pid_t pid = fork_child();
    if (pid != 0)
        return pid;
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    atomic_fetch_add(&bench->shared->arrived, 1);
    if (fd < 0 || flock(fd, LOCK_EX) != 0)
        _exit(1);
    atomic_store(&bench->shared->granted_ns, now_ns());
    if (!keeps)
        _exit(0);
    for (;;)
        pause();
}

static void run_kill(struct bench *bench)
{
    size_t rounds = bench->cycles ? bench->cycles : 20;
    uint32_t *samples = calloc(rounds, sizeof *samples);
    struct shared *shared = bench->shared;
    char path[4096];
    uint64_t errors = 0;
    size_t count = 0;

    if (!samples)
        die("calloc");
    snprintf(path, sizeof path, "%s/kill", bench->dir);
    for (size_t i = 0; i < rounds; i++) {
        int status;
        atomic_store(&shared->granted_ns, 0);
        pid_t holder = fork_taker(bench, path, true);
        while (!atomic_load(&shared->granted_ns)) {
            if (waitpid(holder, NULL, WNOHANG) != 0)
                exit(1);
            usleep(100);
        }
        atomic_store(&shared->granted_ns, 0);
        atomic_store(&shared->arrived, 0);
        pid_t waiter = fork_taker(bench, path, false);
        while (!atomic_load(&shared->arrived))
            usleep(100);
        sleep_ms(SETTLE_MS);
        if (atomic_load(&shared->granted_ns))
            errors++; /* two holders */
        uint64_t killed_ns = now_ns();
        kill(holder, SIGKILL);
        waitpid(waiter, &status, 0);
        waitpid(holder, NULL, 0);
        uint64_t granted_ns = atomic_load(&shared->granted_ns);
        if (status != 0 || granted_ns < killed_ns)
            errors++;
        else
            samples[count++] = clamp(granted_ns - killed_ns);
    }
    printf("cycles=%zu errors=%" PRIu64, count, errors);
    print_percentiles("cycle", samples, count);
    printf(" cycle_max_us=%.1f\n", percentile_us(samples, count, 1));
    free(samples);
}

/* spawn */

static void run_spawn(struct bench *bench)
{
    size_t max = bench->cycles ? bench->cycles : 1 << 16;
    uint32_t *samples = calloc(max, sizeof *samples);
    char path[4096];
    char name[] = "flock";
    char command[] = "true";
    char *argv[] = {name, path, command, NULL};
    uint64_t errors = 0;
    size_t count = 0;

    if (!samples)
        die("calloc");
    snprintf(path, sizeof path, "%s/spawn", bench->dir);
    uint64_t end = now_ns() + (uint64_t)(bench->seconds * 1e9);
    while (count + errors < max && now_ns() < end) {
        pid_t pid;
        int status = 0;
        uint64_t begin = now_ns();
        int error = posix_spawnp(&pid, name, NULL, NULL, argv, environ);
        if (!error)
            waitpid(pid, &status, 0);
        if (error || status)
            errors++;
        else
            samples[count++] = clamp(now_ns() - begin);
    }
    printf("cycles=%zu errors=%" PRIu64, count, errors);
    print_percentiles("cycle", samples, count);
    printf("\n");
    free(samples);
}

int main(int argc, char **argv)
{
    static const char *const modes[] = {"flock-kept", "flock-open", "flock-dirs", "excl",
                                        "handoff",    "kill",       "spawn"};
    struct bench bench = {0};
    bool known = false;

    if (argc == 6) {
        bench.mode = argv[1];
        bench.clients = atoi(argv[2]);
        bench.seconds = atof(argv[3]);
        bench.cycles = strtoull(argv[4], NULL, 10);
        bench.dir = argv[5];
        for (size_t i = 0; i < sizeof modes / sizeof *modes; i++)
            known = known || is(&bench, modes[i]);
    }
    if (!known || bench.clients < 1 || bench.clients > CLIENTS_MAX || !(bench.seconds > 0)) {
        fprintf(stderr, "Usage: bench_clients MODE CLIENTS SECONDS CYCLES DIR\n");
        return 2;
    }
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    bench.shared = take_shared(sizeof *bench.shared);
    if (is(&bench, "kill"))
        run_kill(&bench);
    else if (is(&bench, "spawn"))
        run_spawn(&bench);
    else
        run_clients(&bench);
    return 0;
}

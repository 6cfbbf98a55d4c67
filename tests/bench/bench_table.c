/*
 * The lock table alone: what an acquire and its release cost while so many other claims are held.
 *
 *     bench_table root|locks HELD CYCLES
 *
 * `root`: claims of files in the root. `locks`: of a file in each of as many locks. CYCLES times,
 * a claim is made that was not there before, and released; all claims but these stay.
 *
 * Prints nanoseconds per cycle, and the memory that became resident. For the instructions,
 * run it under callgrind with --toggle-collect=bench_cycles, once with 0 CYCLES for what is not of
 * the cycles.
 */
#include <assert.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "fs/lock_table.h"

enum { NODE = 1, INCARNATION = 77 };

struct bench {
    struct lock_table *table;
    bool in_locks;
    uint64_t seq;
    uint64_t *locks; /* their ids */
    uint32_t held;
};

/* Visible to callgrind by its name. */
void bench_cycles(struct bench *bench, uint32_t cycles);

static void on_effect(void *context, const struct effect *effect)
{
    (void)context;
    (void)effect;
}

static struct command_result apply(struct bench *bench, struct command *command)
{
    command->node = NODE;
    command->incarnation = INCARNATION;
    command->seq = command->type == COMMAND_INCARNATION ? 0 : ++bench->seq;
    return lock_table_apply(bench->table, command, on_effect, NULL);
}

/* Names as cheap to make as possible, of one length: 8 digits of base 16. */
static struct span name_of(uint32_t number, char buffer[8])
{
    for (int i = 0; i < 8; i++)
        buffer[i] = "0123456789abcdef"[number >> (28 - 4 * i) & 15];
    return (struct span){buffer, 8};
}

static void acquire(struct bench *bench, uint32_t number, uint64_t lock)
{
    char buffer[8];
    struct command command = {
        .type = COMMAND_ACQUIRE,
        .lock = lock,
        .name = name_of(number, buffer),
        .handle = (uint64_t)number + 1,
        .kind = CLAIM_CREATE,
        .claim_mode = CLAIM_EXCLUSIVE,
        .ttl_ms = 10000,
        .process = {.pid = 4711, .start = 1, .comm = "bench"},
        .mode = 0644,
    };
    struct command_result result = apply(bench, &command);
    assert(result.error == 0 && result.token);
    (void)result;
}

static void release(struct bench *bench, uint32_t number)
{
    struct command command = {.type = COMMAND_RELEASE, .handle = (uint64_t)number + 1};
    struct command_result result = apply(bench, &command);
    assert(result.error == 0);
    (void)result;
}

static uint64_t make_lock(struct bench *bench, uint32_t number)
{
    char buffer[8];
    struct command command = {.type = COMMAND_MKDIR,
                              .lock = LOCK_TABLE_ROOT,
                              .name = name_of(number | 1u << 31, buffer),
                              .mode = 0755};
    struct command_result result = apply(bench, &command);
    assert(result.error == 0 && result.lock);
    return result.lock;
}

/* The claims come and go in an order that no cache can guess, and in a lock of their own. */
__attribute__((noinline)) void bench_cycles(struct bench *bench, uint32_t cycles)
{
    for (uint32_t i = 0; i < cycles; i++) {
        uint32_t number = bench->held + (i * 2654435761u >> 8) % 1000003u;
        acquire(bench, number, bench->in_locks ? bench->locks[bench->held] : LOCK_TABLE_ROOT);
        release(bench, number);
    }
}

static double resident_mib(void)
{
    long pages = 0;
    long size;
    FILE *file = fopen("/proc/self/statm", "r");

    if (!file || fscanf(file, "%ld %ld", &size, &pages) != 2)
        pages = 0;
    if (file)
        fclose(file);
    return (double)pages * (double)sysconf(_SC_PAGESIZE) / (1 << 20);
}

static double now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e9 + (double)now.tv_nsec;
}

int main(int argc, char **argv)
{
    struct bench bench = {0};
    uint32_t cycles;

    if (argc != 4 || (strcmp(argv[1], "root") != 0 && strcmp(argv[1], "locks") != 0)) {
        fprintf(stderr, "Usage: bench_table root|locks HELD CYCLES\n");
        return 2;
    }
    bench.in_locks = strcmp(argv[1], "locks") == 0;
    bench.held = (uint32_t)strtoul(argv[2], NULL, 10);
    cycles = (uint32_t)strtoul(argv[3], NULL, 10);

    size_t bytes = lock_table_size(&lock_table_limits_default);
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    bench.locks = calloc((size_t)bench.held + 1, sizeof *bench.locks);
    if (memory == MAP_FAILED || !bench.locks) {
        fprintf(stderr, "bench_table: out of memory\n");
        exit(1);
    }
    memset(bench.locks, 0xff, ((size_t)bench.held + 1) * sizeof *bench.locks); /* ours, not its */
    double before = resident_mib();
    bench.table = lock_table_init(memory, &lock_table_limits_default);
    struct command command = {.type = COMMAND_INCARNATION};
    struct command_result result = apply(&bench, &command);
    assert(result.error == 0);
    (void)result;

    for (uint32_t i = 0; bench.in_locks && i <= bench.held; i++)
        bench.locks[i] = make_lock(&bench, i);
    double begin = now_ns();
    for (uint32_t i = 0; i < bench.held; i++)
        acquire(&bench, i, bench.in_locks ? bench.locks[i] : LOCK_TABLE_ROOT);
    double filled = now_ns();
    double resident = resident_mib() - before;
    struct lock_table_counts counts;
    lock_table_get_counts(bench.table, &counts);
    if (counts.claims != bench.held) {
        fprintf(stderr, "bench_table: %u claims are held, not %u\n", counts.claims, bench.held);
        exit(1);
    }
    double start = now_ns();
    bench_cycles(&bench, cycles);
    double end = now_ns();
    printf("held=%u fill_ns=%.0f cycle_ns=%.0f resident_mib=%.1f\n", bench.held,
           bench.held ? (filled - begin) / bench.held : 0, cycles ? (end - start) / cycles : 0,
           resident);
    free(bench.locks);
    munmap(memory, bytes);
    return 0;
}

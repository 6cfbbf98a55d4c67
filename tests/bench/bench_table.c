/*
 * The lock table alone: what an acquire and its release cost while so many other claims are held.
 *
 *     bench_table root|locks HELD CYCLES [DIRECTORY]
 *
 * `root`: claims of files in the root. `locks`: of a file in each of as many locks. CYCLES times,
 * a claim is made that was not there before, and released; all claims but these stay.
 *
 * With a directory, which must be empty, a node that has this table then saves a snapshot there, as
 * the daemon does, while random claims are released and made again as fast as can be, one in each
 * turn of the loop; and another node is restored from it.
 *
 * Prints nanoseconds per cycle, and the memory that became resident; of the snapshot, how long it
 * and the restoration took, how long the turn that forked, and the longest turns while the child
 * was there, beside those of as long a time without it. Of each also the processor time that it
 * took, which other programs do not lengthen. For the instructions,
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

#include "fs/disk.h"
#include "fs/lock_table.h"
#include "fs/node.h"
#include "fs/snapshot_file.h"

/* The claims are another node's, so that the one that is made for the snapshot leaves them alone.
 */
enum { NODE = 1, INCARNATION = 77, SAVING_NODE = 2 };
enum { TURN_US_MAX = 1 << 18, WRITTEN_BYTES = 1 << 20 };

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

/* A node that has the table */

struct saver {
    struct node *node;
    uint64_t write; /* that is to be reported as durable */
    bool ready;
    bool done;
};

static void *take_memory(size_t bytes)
{
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) {
        fprintf(stderr, "bench_table: out of memory\n");
        exit(1);
    }
    return memory;
}

static struct node *make_node(void)
{
    struct node_config config = {
        .id = SAVING_NODE, .incarnation = 1, .ttl_ms = 10000, .op_timeout_ms = 5000};
    void *memory = take_memory(node_size(&node_limits_default));
    return node_init(memory, &node_limits_default, &config);
}

static void on_action(void *context, const struct node_action *action)
{
    struct saver *saver = context;
    if (action->type == NODE_ACTION_PERSIST_STATE)
        saver->write = action->persist_state.write;
    else if (action->type == NODE_ACTION_PERSIST_ENTRY)
        saver->write = action->persist_entry.write;
    else if (action->type == NODE_ACTION_READY)
        saver->ready = true;
}

static void step(struct saver *saver, struct node_event event)
{
    event.log_room = UINT64_MAX / 2;
    node_step(saver->node, &event, on_action, saver);
}

static bool restore_record(struct node *node, struct node_restoring *restoring, const char *record,
                           size_t len)
{
    return node_restore(node, restoring, (struct span){record, len});
}

/* A node whose table is as the given one. */
static void start_saver(struct saver *saver, const struct lock_table *table)
{
    static struct node_cursor empty;
    static struct lock_table_cursor cursor;
    struct node_restoring restoring = {0};
    char record[LIMIT_SNAPSHOT_RECORD_BYTES];
    bool fine = true;
    size_t len;

    saver->node = make_node();
    struct node *other = make_node();
    while ((len = lock_table_save(table, &cursor, record)))
        fine = fine && restore_record(saver->node, &restoring, record, len);
    /* What is the node's own comes behind the table, here from one that has nothing. */
    while ((len = node_save(other, &empty, record)))
        if (empty.part)
            fine = fine && restore_record(saver->node, &restoring, record, len);
    if (!fine || !node_is_restored(saver->node, &restoring)) {
        fprintf(stderr, "bench_table: the node takes the table for none\n");
        exit(1);
    }
    munmap(other, node_size(&node_limits_default));
    step(saver, (struct node_event){.type = NODE_EVENT_RECOVERED_SNAPSHOT,
                                    .recovered_snapshot = {1000, 1}});
    step(saver, (struct node_event){.type = NODE_EVENT_RECOVERED_STATE, .recovered_state = {1, 0}});
    step(saver, (struct node_event){.type = NODE_EVENT_START});
    for (uint64_t durable = 0; durable != saver->write;) {
        durable = saver->write;
        step(saver, (struct node_event){.type = NODE_EVENT_PERSISTED, .persisted = {durable}});
    }
    if (!saver->ready) {
        fprintf(stderr, "bench_table: the node does not start\n");
        exit(1);
    }
}

/* Turns of the loop */

struct turns {
    uint64_t count;
    double max_us;
    double max_cpu_us;
    uint32_t by_us[TURN_US_MAX];
};

static double clock_us(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return (double)now.tv_sec * 1e6 + (double)now.tv_nsec / 1e3;
}

static void count_turn(struct turns *turns, double us, double cpu_us)
{
    turns->count++;
    turns->by_us[us < TURN_US_MAX ? (uint32_t)us : TURN_US_MAX - 1]++;
    if (us > turns->max_us)
        turns->max_us = us;
    if (cpu_us > turns->max_cpu_us)
        turns->max_cpu_us = cpu_us;
}

static double p999_us(const struct turns *turns)
{
    uint64_t above = 0;
    uint32_t us = TURN_US_MAX;
    while (us && above <= turns->count / 1000)
        above += turns->by_us[--us];
    return us;
}

/* What happens in a turn, the snapshot apart: somewhere in the table, a claim is another one. */
static void change_one(struct bench *bench)
{
    static uint64_t random = 88172645463325252;
    random ^= random << 13; /* xorshift (Marsaglia 2003) */
    random ^= random >> 7;
    random ^= random << 17;
    uint32_t number = (uint32_t)((random >> 16) % bench->held);
    release(bench, number);
    acquire(bench, number, bench->in_locks ? bench->locks[number] : LOCK_TABLE_ROOT);
}

struct turn_start {
    double us;
    double cpu_us;
};

static struct turn_start begin_turn(void)
{
    return (struct turn_start){clock_us(CLOCK_MONOTONIC), clock_us(CLOCK_THREAD_CPUTIME_ID)};
}

static void end_turn(struct turns *turns, struct turn_start start)
{
    double cpu_us = clock_us(CLOCK_THREAD_CPUTIME_ID) - start.cpu_us;
    count_turn(turns, clock_us(CLOCK_MONOTONIC) - start.us, cpu_us);
}

static void on_saved(void *context, uint64_t index)
{
    struct saver *saver = context;
    (void)index;
    saver->done = true;
}

static void on_failed(void *context, const char *why)
{
    (void)context;
    fprintf(stderr, "bench_table: no snapshot: %s\n", why);
    exit(1);
}

static void load_again(const char *directory, const struct saver *saver)
{
    struct node *node = make_node();
    struct snapshot_info info;
    char message[512];

    double begin = clock_us(CLOCK_MONOTONIC);
    if (snapshot_load(&disk_real, directory, node, &info, message, sizeof message)) {
        fprintf(stderr, "bench_table: %s\n", message);
        exit(1);
    }
    double end = clock_us(CLOCK_MONOTONIC);
    printf("snapshot_mib=%.1f snapshot_max_mib=%.1f load_ms=%.0f\n", (double)info.bytes / (1 << 20),
           (double)node_snapshot_bytes(saver->node) / (1 << 20), (end - begin) / 1e3);
}

static void measure_snapshot(struct bench *bench, struct saver *saver, const char *directory)
{
    static const struct snapshot_handler handler = {on_saved, on_failed};
    static struct turns during, idle;
    const struct snapshot_options options = {.log_bytes = 1};
    const struct snapshot_info last = {0};
    struct snapshot_writer *writer;
    uv_loop_t loop;

    memset(&during, 0, sizeof during); /* no page fault is to be measured but the table's */
    memset(&idle, 0, sizeof idle);
    int error = uv_loop_init(&loop);
    if (!error)
        error = snapshot_writer_open(&loop, &disk_real, directory, &options, &last, saver->node,
                                     &handler, saver, &writer);
    if (error) {
        fprintf(stderr, "bench_table: %s\n", strerror(-error));
        exit(1);
    }
    double begin = clock_us(CLOCK_MONOTONIC);
    struct turn_start start = begin_turn();
    snapshot_writer_consider(writer, saver->node, WRITTEN_BYTES, false);
    end_turn(&during, start);
    double fork_us = during.max_us;
    while (!saver->done) {
        start = begin_turn();
        change_one(bench);
        uv_run(&loop, UV_RUN_NOWAIT);
        end_turn(&during, start);
    }
    double end = clock_us(CLOCK_MONOTONIC);
    while (clock_us(CLOCK_MONOTONIC) < end + (end - begin)) {
        start = begin_turn();
        change_one(bench);
        uv_run(&loop, UV_RUN_NOWAIT);
        end_turn(&idle, start);
    }
    printf("snapshot_ms=%.0f fork_us=%.0f turns=%llu max_us=%.0f max_cpu_us=%.0f p999_us=%.0f "
           "idle_turns=%llu idle_max_us=%.0f idle_max_cpu_us=%.0f idle_p999_us=%.0f ",
           (end - begin) / 1e3, fork_us, (unsigned long long)during.count, during.max_us,
           during.max_cpu_us, p999_us(&during), (unsigned long long)idle.count, idle.max_us,
           idle.max_cpu_us, p999_us(&idle));
    snapshot_writer_close(writer);
    uv_run(&loop, UV_RUN_DEFAULT);
    uv_loop_close(&loop);
    load_again(directory, saver);
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

    if ((argc != 4 && argc != 5) ||
        (strcmp(argv[1], "root") != 0 && strcmp(argv[1], "locks") != 0)) {
        fprintf(stderr, "Usage: bench_table root|locks HELD CYCLES [DIRECTORY]\n");
        return 2;
    }
    bench.in_locks = strcmp(argv[1], "locks") == 0;
    bench.held = (uint32_t)strtoul(argv[2], NULL, 10);
    cycles = (uint32_t)strtoul(argv[3], NULL, 10);

    size_t bytes = lock_table_size(&lock_table_limits_default);
    void *memory = take_memory(bytes);
    bench.locks = calloc((size_t)bench.held + 1, sizeof *bench.locks);
    if (!bench.locks) {
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
    printf("held=%u fill_ns=%.0f cycle_ns=%.0f resident_mib=%.1f ", bench.held,
           bench.held ? (filled - begin) / bench.held : 0, cycles ? (end - start) / cycles : 0,
           resident);
    if (argc == 5 && bench.held) {
        struct saver saver = {0};
        start_saver(&saver, bench.table);
        munmap(memory, bytes);
        /* What the log would do, without one. */
        bench.table = (struct lock_table *)(uintptr_t)node_table(saver.node);
        measure_snapshot(&bench, &saver, argv[4]);
    } else {
        munmap(memory, bytes);
        printf("\n");
    }
    free(bench.locks);
    return 0;
}

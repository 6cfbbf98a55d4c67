/* A node under random requests. */
#include "random_node.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>

#include "fs/node_internal.h"
#include "tap.h"

static uint64_t from_environment(const char *name, uint64_t otherwise)
{
    const char *text = getenv(name);
    return text && *text ? strtoull(text, NULL, 10) : otherwise;
}

void random_node_begin(struct random_node *run, uint64_t steps_max)
{
    uint32_t drawn;
    if (getrandom(&drawn, sizeof drawn, 0) != sizeof drawn)
        drawn = 1;
    run->seed = from_environment("SEED", drawn);
    run->steps_max = from_environment("STEPS", steps_max);
    run->dice = (run->seed + 1) * UINT64_C(0x9e3779b97f4a7c15);
    run->what = "";
    tap_note("SEED=%" PRIu64 " STEPS=%" PRIu64, run->seed, run->steps_max);
}

uint64_t random_node_draw(struct random_node *run)
{
    run->dice ^= run->dice << 13;
    run->dice ^= run->dice >> 7;
    run->dice ^= run->dice << 17;
    return run->dice * UINT64_C(0x2545f4914f6cdd1d) >> 16;
}

uint32_t random_node_below(struct random_node *run, uint32_t bound)
{
    return (uint32_t)(random_node_draw(run) % bound);
}

bool random_node_one_in(struct random_node *run, uint32_t n)
{
    return random_node_below(run, n) == 0;
}

void random_node_fail(const struct random_node *run, const char *format, ...)
{
    va_list arguments;
    printf("# SEED=%" PRIu64 " STEPS=%" PRIu64 ", step %" PRIu64 " (%s): ", run->seed,
           run->steps_max, run->step_number, run->what);
    va_start(arguments, format);
    vprintf(format, arguments);
    va_end(arguments);
    printf("\n");
    tap_ok(false, "random requests");
    exit(tap_done());
}

void random_node_step(struct random_node *run, struct node_event event)
{
    bench_step(run->bench, &event);
    run->stepped();
}

uint64_t random_node_unwritten(const struct random_node *run)
{
    return run->bench->write - run->bench->durable;
}

void random_node_persist(struct random_node *run, uint64_t count)
{
    struct bench *bench = run->bench;
    bench->durable += count;
    bench->entries_durable = bench->entries_count - (size_t)(bench->write - bench->durable);
    random_node_step(
        run, (struct node_event){.type = NODE_EVENT_PERSISTED, .persisted = {bench->durable}});
    run->collect();
}

void random_node_let_time_pass(struct random_node *run, uint32_t ms)
{
    struct bench *bench = run->bench;
    bench->now_ms += ms;
    bench->wall_ms += ms;
    if (bench->timer_at_ms && bench->now_ms >= bench->timer_at_ms)
        random_node_step(run, (struct node_event){.type = NODE_EVENT_TIMER});
    run->collect();
}

void random_node_interrupt(struct random_node *run, bool (*is_used)(uint32_t slot))
{
    uint32_t slot = 1 + random_node_below(run, BENCH_SLOTS - 1);
    for (int tries = 0; tries < 8 && !is_used(slot); tries++)
        slot = 1 + random_node_below(run, BENCH_SLOTS - 1);
    random_node_step(run, (struct node_event){.type = NODE_EVENT_INTERRUPT, .interrupt = {slot}});
    run->collect();
}

void random_node_check_quiet(const struct random_node *run, uint32_t inodes)
{
    const struct node *node = run->bench->node;
    struct lock_table_counts counts;
    lock_table_get_counts(node->table, &counts);
    if (counts.claims || counts.waiters || counts.contents_bytes)
        random_node_fail(run, "%u claims, %u waiters, %" PRIu64 " bytes are left", counts.claims,
                         counts.waiters, counts.contents_bytes);
    if (node->claims_held || node->acquires || node->fcntl_requests || node->forces)
        random_node_fail(run, "claims held %u, acquires %u, fcntl requests %u, forces %u",
                         node->claims_held, node->acquires, node->fcntl_requests, node->forces);
    if (node->handles.used || node->handles_open || node->readers.used)
        random_node_fail(run, "handles %u, open %u, readers %u", node->handles.used,
                         node->handles_open, node->readers.used);
    if (node->fcntl_records.used || node->fcntl_by_owner.count || node->delays.used)
        random_node_fail(run, "fcntl records %u, delays %u", node->fcntl_records.used,
                         node->delays.used);
    if (node->process_numbers.used || node->numbers_by_process.count)
        random_node_fail(run, "numbers of %u processes are left", node->process_numbers.used);
    if (node->requests_by_seq.count || node->deadlines.head)
        random_node_fail(run, "%u requests are left", node->requests_by_seq.count);
    if (node->pending_chunks.used)
        random_node_fail(run, "%u chunks of entries are left", node->pending_chunks.used);
    if (node->tree.inodes.used != inodes)
        random_node_fail(run, "%u inodes are left", node->tree.inodes.used);
}

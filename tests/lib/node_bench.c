/* A node on a workbench. */
#include "node_bench.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "raft/raft.h"

const struct node_limits bench_limits = {
    .table =
        {
            .locks = 64,
            .claims = 48,
            .waiters = 16,
            .sessions = 4,
            .names_bytes = 4096,
            .contents_bytes = 16384,
        },
    .handles = 64,
    .requests = BENCH_SLOTS,
    .inodes = 256,
    .pending_entries = 1024,
    .pending_bytes = 1 << 20,
};

static void sink(void *context, const struct node_action *action)
{
    struct bench *bench = context;
    switch (action->type) {
    case NODE_ACTION_PERSIST_STATE:
        bench->term = action->persist_state.term;
        bench->vote = action->persist_state.vote;
        bench->write = action->persist_state.write;
        bench->hurry = true;
        break;
    case NODE_ACTION_PERSIST_ENTRY: {
        assert(action->persist_entry.index == bench->entries_count + 1);
        assert(bench->entries_count < BENCH_ENTRIES);
        struct bench_entry *entry = &bench->entries[bench->entries_count++];
        entry->term = action->persist_entry.term;
        entry->type = action->persist_entry.entry_type;
        entry->len = action->persist_entry.data.len;
        entry->data = malloc(entry->len + 1);
        if (entry->len)
            memcpy(entry->data, action->persist_entry.data.data, entry->len);
        bench->write = action->persist_entry.write;
        bench->hurry = bench->hurry || action->persist_entry.hurried;
        break;
    }
    case NODE_ACTION_PERSIST_RESET:
    case NODE_ACTION_SEND:
    case NODE_ACTION_SNAPSHOT_CHUNK:
    case NODE_ACTION_RESTORE:
        assert(false); /* the only voter talks to nobody */
        break;
    case NODE_ACTION_HURRY:
        bench->hurry = true;
        break;
    case NODE_ACTION_REPLAY:
        bench->replay_first = action->replay.first;
        bench->replay_last = action->replay.last;
        break;
    case NODE_ACTION_REPLY: {
        uint32_t slot = action->reply.slot;
        assert(slot < BENCH_SLOTS && !bench->answered[slot]);
        bench->answered[slot] = true;
        bench->replies[slot] = action->reply;
        char *text = bench->data[slot];
        size_t size = sizeof bench->data[slot];
        text[0] = 0;
        if (action->reply.type == NODE_REPLY_DATA) {
            assert(action->reply.data.len < size);
            memcpy(text, action->reply.data.data, action->reply.data.len);
            text[action->reply.data.len] = 0;
        }
        for (size_t i = 0, used = 0; i < action->reply.dirents_count; i++) {
            struct span name = action->reply.dirents[i].name;
            used += (size_t)snprintf(text + used, size - used, "%.*s\n", (int)name.len, name.data);
            bench->replies[slot].number = action->reply.dirents[i].next;
        }
        break;
    }
    case NODE_ACTION_READY:
        bench->ready = true;
        break;
    case NODE_ACTION_LOST:
        bench->lost_handle = action->lost.handle;
        break;
    case NODE_ACTION_SIGNAL:
        bench->signal_sent = action->signal.number;
        break;
    case NODE_ACTION_WATCH:
        bench->watched = action->watch;
        break;
    case NODE_ACTION_TIMER:
        bench->timer_at_ms = action->timer.at_ms;
        break;
    case NODE_ACTION_NOTICE:
        if (bench->notices_count < BENCH_NOTICES)
            bench->notices[bench->notices_count++] = action->notice.type;
        break;
    case NODE_ACTION_DRAINED:
        bench->drained = true;
        break;
    case NODE_ACTION_FAILED:
        bench->failed = action->failed.reason;
        break;
    }
}

static void step_once(struct bench *bench, struct node_event *event)
{
    event->now_ms = bench->now_ms;
    event->wall_ms = bench->wall_ms;
    event->log_room = bench->log_room;
    event->snapshot_room = bench->snapshot_room;
    node_step(bench->node, event, sink, bench);
}

void bench_step(struct bench *bench, struct node_event *event)
{
    step_once(bench, event);
    if (bench->replay_first) {
        uint64_t first = bench->replay_first;
        bench->replay_first = 0;
        for (uint64_t index = first; index <= bench->replay_last; index++) {
            const struct bench_entry *entry = &bench->entries[index - 1];
            struct node_event replayed = {
                .type = NODE_EVENT_REPLAYED,
                .replayed = {index, entry->type, {entry->data, entry->len}}};
            step_once(bench, &replayed);
        }
    }
    if (bench->auto_persist)
        bench_persist(bench);
}

void bench_persist(struct bench *bench)
{
    while (bench->durable < bench->write) {
        bench->durable = bench->write;
        bench->entries_durable = bench->entries_count;
        struct node_event event = {.type = NODE_EVENT_PERSISTED, .persisted = {bench->durable}};
        step_once(bench, &event);
        if (bench->replay_first)
            bench_step(bench, &(struct node_event){.type = NODE_EVENT_FORGET, .forget = {0, 0}});
    }
}

void bench_persist_until(struct bench *bench, uint64_t write)
{
    assert(write > bench->durable && write <= bench->write);
    bench->durable = write;
    step_once(bench,
              &(struct node_event){.type = NODE_EVENT_PERSISTED, .persisted = {bench->durable}});
}

static void boot(struct bench *bench, const struct node_limits *limits)
{
    bench->memory = calloc(1, node_size(limits)); /* what is not touched costs nothing */
    assert(bench->memory && (uintptr_t)bench->memory % 16 == 0);
    struct node_config config = {
        .id = 1,
        .incarnation = ++bench->incarnation,
        .boot_id = {1, 2, 3},
        .ttl_ms = 10000,
        .op_timeout_ms = 5000,
        .version = "test",
    };
    bench->node = node_init(bench->memory, limits, &config);
    assert(bench->node);
    bench->ready = bench->drained = false;
    bench->write = bench->durable = 0;
    bench->auto_persist = true;
    bench->timer_at_ms = 0;
    memset(bench->answered, 0, sizeof bench->answered);
    if (bench->term)
        step_once(bench, &(struct node_event){.type = NODE_EVENT_RECOVERED_STATE,
                                              .recovered_state = {bench->term, bench->vote}});
    for (size_t i = 0; i < bench->entries_count; i++)
        step_once(bench, &(struct node_event){
                             .type = NODE_EVENT_RECOVERED_ENTRY,
                             .recovered_entry = {i + 1,
                                                 bench->entries[i].term,
                                                 bench->entries[i].type,
                                                 {bench->entries[i].data, bench->entries[i].len}}});
    bench_step(bench, &(struct node_event){.type = NODE_EVENT_START});
    assert(bench->ready && !bench->failed);
}

struct bench *bench_open(const struct node_limits *limits)
{
    struct bench *bench = calloc(1, sizeof *bench);
    bench->now_ms = 1000000;
    bench->wall_ms = 1700000000000;
    bench->log_room = bench->snapshot_room = UINT64_MAX / 2;
    boot(bench, limits);
    return bench;
}

static void drop_entries(struct bench *bench, size_t keep)
{
    while (bench->entries_count > keep)
        free(bench->entries[--bench->entries_count].data);
}

void bench_restart(struct bench *bench, const struct node_limits *limits)
{
    free(bench->memory);
    drop_entries(bench, bench->entries_durable);
    boot(bench, limits);
}

void bench_close(struct bench *bench)
{
    drop_entries(bench, 0);
    free(bench->memory);
    free(bench);
}

static struct process process_of(uint32_t pid)
{
    return (struct process){.pid = pid, .start = (uint64_t)pid * 10, .comm = "test"};
}

const struct node_reply *bench_reply(const struct bench *bench, uint32_t slot)
{
    return bench->answered[slot] ? &bench->replies[slot] : NULL;
}

const struct node_reply *bench_request(struct bench *bench, struct node_request request,
                                       uint32_t slot, uint32_t pid)
{
    request.slot = slot;
    request.process = process_of(pid);
    bench->answered[slot] = false;
    bench_step(bench, &(struct node_event){.type = NODE_EVENT_REQUEST, .request = request});
    return bench_reply(bench, slot);
}

static int error_of(const struct node_reply *reply)
{
    if (!reply)
        return -EINPROGRESS;
    return reply->type == NODE_REPLY_ERROR ? reply->error : 0;
}

static struct span span_of(const char *text)
{
    return (struct span){text, strlen(text)};
}

static int entry(struct bench *bench, enum node_op op, uint64_t parent, const char *name,
                 uint64_t *ret_inode)
{
    struct node_request request = {.op = op, .inode = parent, .name = span_of(name), .mode = 0755};
    const struct node_reply *reply = bench_request(bench, request, 0, 100);
    if (error_of(reply) == 0 && ret_inode)
        *ret_inode = reply->inode;
    return error_of(reply);
}

int bench_lookup(struct bench *bench, uint64_t parent, const char *name, uint64_t *ret_inode)
{
    return entry(bench, NODE_OP_LOOKUP, parent, name, ret_inode);
}

int bench_mkdir(struct bench *bench, uint64_t parent, const char *name, uint64_t *ret_inode)
{
    return entry(bench, NODE_OP_MKDIR, parent, name, ret_inode);
}

int bench_create(struct bench *bench, uint64_t parent, const char *name, bool exclusive,
                 uint32_t pid, uint64_t *ret_inode, uint64_t *ret_handle)
{
    struct node_request request = {.op = NODE_OP_CREATE,
                                   .inode = parent,
                                   .name = span_of(name),
                                   .mode = 0644,
                                   .open = {.exclusive = exclusive, .write = true}};
    const struct node_reply *reply = bench_request(bench, request, 0, pid);
    if (error_of(reply) == 0) {
        if (ret_inode)
            *ret_inode = reply->inode;
        if (ret_handle)
            *ret_handle = reply->handle;
    }
    return error_of(reply);
}

int bench_flock(struct bench *bench, uint32_t slot, uint64_t inode, uint64_t handle,
                enum node_flock how, bool wait, uint32_t pid)
{
    struct node_request request = {
        .op = NODE_OP_FLOCK, .inode = inode, .handle = handle, .flock = {how, wait}};
    return error_of(bench_request(bench, request, slot, pid));
}

int bench_named(struct bench *bench, enum node_op op, uint64_t parent, const char *name,
                uint32_t pid)
{
    struct node_request request = {.op = op, .inode = parent, .name = span_of(name)};
    return error_of(bench_request(bench, request, 0, pid));
}

void bench_release(struct bench *bench, uint64_t inode, uint64_t handle)
{
    struct node_request request = {.op = NODE_OP_RELEASE, .inode = inode, .handle = handle};
    int error = error_of(bench_request(bench, request, 0, 0));
    assert(!error); /* in the same step, whatever the disk does */
}

int bench_write(struct bench *bench, uint64_t inode, uint64_t handle, const char *text)
{
    struct node_request request = {
        .op = NODE_OP_WRITE, .inode = inode, .handle = handle, .write = {.data = span_of(text)}};
    return error_of(bench_request(bench, request, 0, 0));
}

int bench_control(struct bench *bench, uint64_t lock, const char *name, uint32_t pid,
                  uint32_t parent_pid, char *ret_text, size_t size)
{
    uint64_t inode;
    ret_text[0] = 0;
    int error = bench_lookup(bench, lock, name, &inode);
    if (error)
        return error;
    struct node_request open = {.op = NODE_OP_OPEN, .inode = inode};
    const struct node_reply *reply = bench_request(bench, open, 0, pid);
    error = error_of(reply);
    if (!error) {
        uint64_t handle = reply->handle;
        struct process ancestors[2] = {process_of(pid), process_of(parent_pid)};
        struct node_request read = {.op = NODE_OP_READ,
                                    .inode = inode,
                                    .handle = handle,
                                    .read = {0, 4096, ancestors, parent_pid ? 2 : 1}};
        error = error_of(bench_request(bench, read, 0, pid));
        if (!error)
            snprintf(ret_text, size, "%s", bench->data[0]);
        bench_release(bench, inode, handle);
    }
    bench_step(bench, &(struct node_event){.type = NODE_EVENT_FORGET, .forget = {inode, 1}});
    return error;
}

int bench_token(struct bench *bench, uint64_t inode, uint64_t handle, uint64_t *ret_token)
{
    struct node_request request = {.op = NODE_OP_IOC_TOKEN, .inode = inode, .handle = handle};
    const struct node_reply *reply = bench_request(bench, request, 0, 0);
    if (error_of(reply) == 0)
        *ret_token = reply->number;
    return error_of(reply);
}

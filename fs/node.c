/* The node: its memory, and where each event goes. */
#include "node.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "node_internal.h"

const struct node_limits node_limits_default = {
    .table =
        {
            .locks = LIMIT_LOCKS,
            .claims = LIMIT_CLAIMS,
            .waiters = LIMIT_WAITERS,
            .sessions = LIMIT_SESSIONS,
            .names_bytes = LIMIT_NAMES_BYTES,
            .contents_bytes = LIMIT_CONTENTS_BYTES,
        },
    .handles = LIMIT_HANDLES,
    .requests = LIMIT_REQUESTS,
    .inodes = LIMIT_INODES,
    .pending_entries = LIMIT_PENDING_ENTRIES,
    .pending_bytes = LIMIT_PENDING_BYTES,
};

static_assert((int)LIMIT_PENDING_ENTRIES < (int)RAFT_WRITES_MAX, "each pending entry is one write");
static_assert((int)LIMIT_COMMAND_BYTES <= (int)RAFT_ENTRY_BYTES_MAX, "a command is an entry");

/* What has modules of its own in it. */
struct parts {
    void *raft;
    void *table;
};

static struct parts lay_out(struct node *node, struct arena *arena,
                            const struct node_limits *limits)
{
    *node = (struct node){.limits = *limits};
    tree_layout(&node->tree, arena, limits->inodes);
    /* Handles that are closed live on until their last command is applied. */
    slab_layout(&node->handles, arena, sizeof(struct handle),
                limits->handles + limits->pending_entries);
    slab_layout(&node->readers, arena, sizeof(struct reader), LIMIT_CONTROL_READERS);
    node->reader_lines =
        arena_take(arena, (size_t)LIMIT_CONTROL_READERS * LIMIT_CONTROL_LINE_BYTES);
    events_layout(&node->events, arena);
    slab_layout(&node->requests, arena, sizeof(struct request), limits->requests);
    slab_layout(&node->fcntl_records, arena, sizeof(struct fcntl_record), limits->handles);
    /* Of an opener, and a locker, of each. */
    slab_layout(&node->process_numbers, arena, sizeof(struct process_number), 2 * limits->handles);
    /* Of every lock, and every file: see struct lock_table. */
    slab_layout(&node->delays, arena, sizeof(struct timed_delay),
                limits->table.locks + limits->table.claims + 2 * limits->table.waiters);
    slab_layout(&node->lost_processes, arena, sizeof(struct lost_process), LIMIT_LOST_PROCESSES);
    index_layout(&node->requests_by_seq, arena, &node->requests, offsetof(struct request, by_seq));
    index_layout(&node->fcntl_by_owner, arena, &node->fcntl_records,
                 offsetof(struct fcntl_record, by_owner));
    index_layout(&node->numbers_by_process, arena, &node->process_numbers,
                 offsetof(struct process_number, by_process));
    index_layout(&node->lost_by_lock, arena, &node->lost_processes,
                 offsetof(struct lost_process, by_lock));
    index_layout(&node->lost_by_pid, arena, &node->lost_processes,
                 offsetof(struct lost_process, by_pid));
    node->message = arena_take(arena, sizeof *node->message);
    node->members = arena_take(arena, sizeof *node->members * RAFT_MEMBERS_MAX);
    node->pending = arena_take(arena, sizeof *node->pending * limits->pending_entries);
    chunks_layout(&node->pending_chunks, arena, limits->pending_bytes / CHUNK_DATA_BYTES);
    node->data = arena_take(arena, NODE_DATA_BYTES);
    node->dirents = arena_take(arena, sizeof *node->dirents * LIMIT_DIRENTS);
    node->dirent_names = arena_take(arena, sizeof *node->dirent_names * LIMIT_DIRENTS);
    struct parts parts;
    parts.raft = arena_take(arena, raft_size());
    parts.table = arena_take(arena, lock_table_size(&limits->table));
    return parts;
}

size_t node_size(const struct node_limits *limits)
{
    struct arena arena = {NULL, 0};
    struct node scratch;
    arena_take(&arena, sizeof scratch);
    lay_out(&scratch, &arena, limits);
    return arena.used;
}

struct node *node_init(void *memory, const struct node_limits *limits,
                       const struct node_config *config)
{
    uint32_t entries = limits->pending_entries;
    if (!config->id || !config->incarnation || !entries || (entries & (entries - 1)))
        return NULL;
    struct arena arena = {memory, 0};
    struct node *node = arena_take(&arena, sizeof *node);
    struct parts parts = lay_out(node, &arena, limits);
    node->config = *config;
    if (node__init_raft(node, parts.raft) != RAFT_OK)
        return NULL;
    node->table = lock_table_init(parts.table, &limits->table);
    node->members[0] = (struct raft_member){.id = config->id, .voter = true};
    node->members_count = 1;
    node->pending_first = 1;
    node->incarnation = config->incarnation;
    tree_init(&node->tree, LOCK_TABLE_ROOT);
    return node;
}

static bool acquires(const struct node_request *request)
{
    switch (request->op) {
    case NODE_OP_CREATE:
        return request->open.exclusive;
    case NODE_OP_FLOCK:
        return request->flock.how != NODE_FLOCK_UNLOCK;
    case NODE_OP_SETLK:
        return request->fcntl.how != NODE_FLOCK_UNLOCK;
    default:
        return false;
    }
}

static void handle_request(struct node *node, const struct node_request *request)
{
    if (!node->ready) {
        node__reply_error(node, request->slot, -EAGAIN);
        return;
    }
    if (request->slot != NODE_NO_SLOT)
        node__request_at(node, request->slot)->acquires = acquires(request);
    switch (request->op) {
    case NODE_OP_LOOKUP:
        node__lookup(node, request);
        break;
    case NODE_OP_GETATTR:
        node__getattr(node, request);
        break;
    case NODE_OP_SETATTR:
        node__setattr(node, request);
        break;
    case NODE_OP_MKDIR:
        node__mkdir(node, request);
        break;
    case NODE_OP_RMDIR:
        node__rmdir(node, request);
        break;
    case NODE_OP_UNLINK:
        node__unlink(node, request);
        break;
    case NODE_OP_RENAME:
        node__rename(node, request);
        break;
    case NODE_OP_LINK:
    case NODE_OP_SYMLINK:
    case NODE_OP_MKNOD:
        node__make_other(node, request);
        break;
    case NODE_OP_CREATE:
        node__create(node, request);
        break;
    case NODE_OP_OPEN:
    case NODE_OP_OPENDIR:
        node__open(node, request);
        break;
    case NODE_OP_READ:
        node__read(node, request);
        break;
    case NODE_OP_WRITE:
        node__write(node, request);
        break;
    case NODE_OP_FLUSH: /* a claim outlives close() of one copy of its descriptor */
        node__flush(node, request);
        break;
    case NODE_OP_FSYNC: /* what was answered is durable */
        node__reply_done(node, request->slot);
        break;
    case NODE_OP_RELEASE:
    case NODE_OP_RELEASEDIR:
        node__release(node, request);
        break;
    case NODE_OP_READDIR:
        node__readdir(node, request);
        break;
    case NODE_OP_GETXATTR:
        node__getxattr(node, request);
        break;
    case NODE_OP_LISTXATTR:
        node__listxattr(node, request);
        break;
    case NODE_OP_STATFS:
        node__statfs(node, request);
        break;
    case NODE_OP_FLOCK:
        node__flock(node, request);
        break;
    case NODE_OP_SETLK:
        node__setlk(node, request);
        break;
    case NODE_OP_GETLK:
        node__getlk(node, request);
        break;
    case NODE_OP_IOC_TOKEN:
    case NODE_OP_IOC_LEASE:
    case NODE_OP_IOC_ON_LOSS:
    case NODE_OP_IOC_FORCE:
        node__ioctl(node, request);
        break;
    case NODE_OP_POLL:
        node__poll(node, request);
        break;
    }
}

void node_step(struct node *node, const struct node_event *event, node_sink *sink, void *context)
{
    node->now_ms = event->now_ms;
    node->wall_ms = event->wall_ms;
    node->log_room = event->log_room;
    node->snapshot_room = event->snapshot_room;
    node->sink = sink;
    node->context = context;

    struct raft_event raft_event;
    switch (event->type) {
    case NODE_EVENT_RECOVERED_STATE:
        raft_event = (struct raft_event){
            .type = RAFT_EVENT_RECOVERED_STATE,
            .recovered_state = {event->recovered_state.term, event->recovered_state.vote}};
        node__raft(node, &raft_event);
        break;
    case NODE_EVENT_RECOVERED_SNAPSHOT:
        node__recovered_snapshot(node, event);
        break;
    case NODE_EVENT_RECOVERED_ENTRY:
        node__recovered_entry(node, event);
        break;
    case NODE_EVENT_START:
        raft_event = (struct raft_event){.type = RAFT_EVENT_START};
        node->started_ms = node->events.last_ms = node->wall_ms;
        node__raft(node, &raft_event);
        break;
    case NODE_EVENT_REPLAYED:
        node__replayed(node, event);
        break;
    case NODE_EVENT_PERSISTED:
        if (event->persisted.write == 0)
            break; /* of several entries, the first write of all: the last is still to come */
        raft_event = (struct raft_event){.type = RAFT_EVENT_PERSISTED,
                                         .persisted = {event->persisted.write}};
        node->stalled = false;
        node__raft(node, &raft_event);
        break;
    case NODE_EVENT_PERSIST_FAILED:
        raft_event = (struct raft_event){.type = RAFT_EVENT_PERSIST_FAILED};
        node__raft(node, &raft_event);
        break;
    case NODE_EVENT_COMPACTED:
        raft_event =
            (struct raft_event){.type = RAFT_EVENT_COMPACTED,
                                .compacted = {event->compacted.index, event->compacted.index}};
        node__raft(node, &raft_event);
        break;
    case NODE_EVENT_MESSAGE:
        node__message(node, event->message);
        break;
    case NODE_EVENT_TURN_END:
        raft_event = (struct raft_event){.type = RAFT_EVENT_TURN_END};
        node__raft(node, &raft_event);
        break;
    case NODE_EVENT_SNAPSHOT_DURABLE:
        node__snapshot_durable(node, event);
        break;
    case NODE_EVENT_SNAPSHOT_REFUSED:
        raft_event = (struct raft_event){.type = RAFT_EVENT_SNAPSHOT_REFUSED};
        node__raft(node, &raft_event);
        break;
    case NODE_EVENT_RESTORED:
        node__restored(node);
        break;
    case NODE_EVENT_CHANGE:
        node__change(node, event);
        break;
    case NODE_EVENT_TRANSFER:
        raft_event =
            (struct raft_event){.type = RAFT_EVENT_TRANSFER, .transfer = {event->transfer.to}};
        node__raft(node, &raft_event);
        break;
    case NODE_EVENT_REQUEST:
        handle_request(node, &event->request);
        break;
    case NODE_EVENT_INTERRUPT:
        node__interrupt(node, event->interrupt.slot);
        break;
    case NODE_EVENT_FORGET:
        tree_forget(&node->tree, event->forget.inode, event->forget.count);
        break;
    case NODE_EVENT_PROCESS_ENDED:
        control__process_ended(node, &event->process_ended);
        node__process_ended(node, &event->process_ended);
        break;
    case NODE_EVENT_TIMER:
        node__timer(node);
        break;
    case NODE_EVENT_DRAIN:
        node__drain(node);
        break;
    }
    node__check_drained(node);
    node__arm_for_raft(node);
}

uint64_t node_log_reserve(const struct node *node)
{
    return LIMIT_LOG_RESERVE_BYTES + (uint64_t)LIMIT_GIVE_BACK_BYTES *
                                         (node->claims_held + node->acquires + node->delays.used);
}

uint32_t node_claims_held(const struct node *node)
{
    return node->claims_held;
}

const struct lock_table *node_table(const struct node *node)
{
    return node->table;
}

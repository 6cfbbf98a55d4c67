/*
 * A server that is the shipping node: the caller's duties of node.h, carried out on the simulated
 * network and disk. Messages, entries and snapshots are the node's bytes. A node that fails, as
 * one does that leads no more, exits and starts again from its disk.
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "server_node.h"

static const struct node_limits limits = {
    .table =
        {
            .locks = 1024,
            .claims = 2048,
            .waiters = 1024,
            .sessions = LIMIT_SESSIONS,
            .names_bytes = 128 << 10,
            .contents_bytes = 256 << 10,
        },
    .handles = 256,
    .requests = DESK_SLOTS,
    .inodes = 4096,
    .pending_entries = 1024,
    .pending_bytes = 4 << 20,
};

struct node *node_of(const struct server *server)
{
    return node_kind_of(server)->node;
}

struct desk *desk_of(const struct server *server)
{
    return &node_kind_of(server)->desk;
}

static struct raft *get_raft(const struct server *server)
{
    const struct node_server *own = node_kind_of(server);

    return own->node == NULL ? NULL : node_look_raft(own->node);
}

static void create(struct server *server)
{
    struct node_server *own = sim_alloc(sizeof(*own));

    memset(own, 0, sizeof(*own));
    own->size = node_size(&limits);
    own->memory = mmap(NULL, own->size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert(own->memory != MAP_FAILED);
    server->kind = own;
}

static void forget(struct server *server)
{
    struct node_server *own = node_kind_of(server);

    node_kind_forget_actions(server);
    own->node = NULL;
    own->failed = own->restoring = own->making_snapshot = false;
    own->timer_at_ms = 0;
    own->replay_first = own->replay_last = 0;
    own->commit = 0;
    blob_unref(own->snapshot);
    own->snapshot = NULL;
    own->received_bytes = 0;
    own->received_index = 0;
    entries_reset(&own->log, 0, 0);
    /* Its callers have lost what they held. */
    memset(&own->desk, 0, sizeof(own->desk));
}

static void destroy(struct server *server)
{
    struct node_server *own = node_kind_of(server);

    forget(server);
    entries_destroy(&own->log);
    munmap(own->memory, own->size);
    free(own->actions);
    free(own->lazy);
    free(own->received);
    free(own);
    server->kind = NULL;
}

/* Steps */

static void note_applied(struct server *server)
{
    struct sim *sim = server->sim;
    struct node_server *own = node_kind_of(server);
    uint64_t applied;
    uint64_t term;

    if (own->restoring)
        return;
    node_get_applied(own->node, &applied, &term);
    if (own->machine.applied == applied)
        return;
    while (own->machine.applied < applied) {
        const uint64_t index = own->machine.applied + 1;
        const struct entry *entry = entries_at(&own->log, index);
        if (entry == NULL) {
            sim_broken(sim, server, "entry %llu is applied and is not there",
                       (unsigned long long)index);
            return;
        }
        machine_apply(&own->machine, index, entry);
        oracle_applied(server, index, entry);
    }
    oracle_table(server);
}

/* What is applied and durable is on the disk, and takes no memory. */
static void check_kept(struct server *server)
{
    struct node_server *own = node_kind_of(server);
    const struct raft *raft = node_look_raft(own->node);
    const uint64_t last = raft_get_last_index(raft);

    if (!own->restoring && own->machine.applied == last && raft_get_durable(raft) == last &&
        node_look_keeps_entries(own->node))
        sim_broken(server->sim, server, "keeps entries that are applied and durable");
}

static void after_step(struct server *server)
{
    struct node_server *own = node_kind_of(server);
    const uint64_t commit = raft_get_commit(node_look_raft(own->node));

    oracle_after_step(server);
    if (own->restoring) { /* the snapshot speaks for what it covers */
        if (own->commit < own->restore_index)
            own->commit = own->restore_index;
    }
    if (commit > own->commit) {
        oracle_commit(server, &own->log, own->commit, commit);
        own->commit = commit;
    }
    note_applied(server);
    check_kept(server);
    if (rng_below(&server->sim->rng, 64) == 0)
        oracle_claims(server);
}

void node_kind_step(struct server *server, struct node_event *event)
{
    struct node_server *own = node_kind_of(server);
    const bool full = server->sim->now_us < server->disk.full_until_us;

    event->now_ms = own->now_ms;
    event->wall_ms = (int64_t)(own->now_ms + 1000 * server->id);
    /* A full disk: room for what gives back, and for no new work. */
    event->log_room = full ? (uint64_t)LIMIT_LOG_RESERVE_BYTES : (uint64_t)1 << 40;
    event->snapshot_room = (uint64_t)1 << 40;
    node_step(own->node, event, node_kind_sink, server);
    after_step(server);
}

struct node_reply node_kind_ask(struct server *server, struct node_request *request)
{
    struct node_server *own = node_kind_of(server);
    struct node_event event = {.type = NODE_EVENT_REQUEST};

    request->slot = 0;
    event.request = *request;
    own->answered_at_once = false;
    node_kind_step(server, &event);
    if (!own->answered_at_once)
        sim_fail(server->sim, SIM_SAFETY, "server %u: operation %d is not answered at once",
                 (unsigned)server->id, (int)request->op);
    return own->answer;
}

static void begin_snapshot(struct server *server)
{
    struct node_server *own = node_kind_of(server);
    const struct machine *machine = &own->machine;

    if (own->making_snapshot || own->failed || own->restoring || machine->applied == 0 ||
        machine->applied > raft_get_durable(node_look_raft(own->node)) ||
        (own->snapshot != NULL && own->snapshot->index >= machine->applied) ||
        machine->applied < own->log.base)
        return;
    own->making_snapshot = true;
    trace_say(server->sim, server, "makes a snapshot up to %llu", machine->applied, 0, 0);
    disk_store_snapshot(server, node_kind_snapshot(server), true);
}

void node_kind_maybe_begin_snapshot(struct server *server)
{
    const struct node_server *own = node_kind_of(server);
    const uint64_t since = own->snapshot == NULL ? 0 : own->snapshot->index;

    if (own->machine.applied >= since + server->sim->plan.snapshot_entries ||
        raft_wants_snapshot(node_look_raft(own->node)))
        begin_snapshot(server);
}

static void on_snapshot_stored(struct server *server, struct blob *blob, struct node_event *event)
{
    struct node_server *own = node_kind_of(server);

    own->making_snapshot = false;
    server->sim->stats->snapshots_made++;
    if (own->snapshot == NULL || own->snapshot->index < blob->index) {
        blob_unref(own->snapshot);
        own->snapshot = blob_ref(blob);
    }
    event->type = NODE_EVENT_COMPACTED;
    event->compacted.index = blob->index;
}

/* The adversary wants nothing written, which callers who read may do here, too. */
static bool is_quiet(const struct sim *sim)
{
    return !sim->recovering && sim->now_us < sim->callers.quiet_until;
}

/* False: it is no event of the node. */
static bool event_of_call(struct server *server, const struct call *call, struct node_event *event)
{
    uint32_t count;

    switch (call->type) {
    case CALL_PROPOSE:
    case CALL_READ:
        count = call->type == CALL_READ || call->count < 4 ? 1 : call->count / 4;
        if (node_kind_of(server)->failed || (call->type == CALL_READ && is_quiet(server->sim)))
            return false;
        for (uint32_t i = 0; i < count; i++)
            desk_act(server);
        return false;
    case CALL_CHANGE:
        if (node_kind_of(server)->snapshot == NULL)
            begin_snapshot(server); /* for those who join */
        event->type = NODE_EVENT_CHANGE;
        event->change.type = call->change.type;
        event->change.id = call->change.id;
        return true;
    case CALL_TRANSFER:
        event->type = NODE_EVENT_TRANSFER;
        event->transfer.to = call->to;
        server->sim->stats->transfers_asked++;
        return true;
    case CALL_SNAPSHOT:
        begin_snapshot(server);
        return false;
    }
    return false;
}

static void trace_event(struct server *server, const struct item *item)
{
    struct raft_event event = {.now_ms = 0};

    switch (item->type) {
    case ITEM_MESSAGE:
        event.type = RAFT_EVENT_MESSAGE;
        event.message.message = &item->message->raft;
        break;
    case ITEM_CALL:
        trace_say(server->sim, server, "a caller's wish of type %llu", item->call.type, 0, 0);
        return;
    case ITEM_PERSISTED:
        event.type = RAFT_EVENT_PERSISTED;
        event.persisted.write = item->write;
        break;
    case ITEM_PERSIST_FAILED:
        event.type = RAFT_EVENT_PERSIST_FAILED;
        break;
    case ITEM_SNAPSHOT_STORED:
        event.type = RAFT_EVENT_COMPACTED;
        event.compacted.index = event.compacted.log_base = item->blob->index;
        break;
    case ITEM_SNAPSHOT_RECEIVED:
        event.type = RAFT_EVENT_SNAPSHOT_DURABLE;
        event.snapshot_durable.index = item->blob->index;
        event.snapshot_durable.term = item->blob->term;
        break;
    case ITEM_SNAPSHOT_REFUSED:
        event.type = RAFT_EVENT_SNAPSHOT_REFUSED;
        break;
    case ITEM_TICK:
        event.type = RAFT_EVENT_TICK;
        break;
    case ITEM_TURN_END:
        event.type = RAFT_EVENT_TURN_END;
        break;
    default:
        return;
    }
    trace_step(server, &event, RAFT_OK);
}

static void step(struct server *server, const struct item *item, uint64_t now_ms)
{
    struct node_server *own = node_kind_of(server);
    struct node_event event = {.type = NODE_EVENT_TIMER};
    struct raft_member members[RAFT_MEMBERS_MAX];

    own->now_ms = now_ms;
    trace_event(server, item);
    switch (item->type) {
    case ITEM_NONE:
    case ITEM_APPLY:
        return;
    case ITEM_MESSAGE:
        event.type = NODE_EVENT_MESSAGE;
        event.message = (struct span){item->message->bytes, item->message->bytes_size};
        break;
    case ITEM_CALL:
        if (!event_of_call(server, &item->call, &event))
            return;
        break;
    case ITEM_PERSISTED:
        event.type = NODE_EVENT_PERSISTED;
        event.persisted.write = item->write;
        break;
    case ITEM_PERSIST_FAILED:
        event.type = NODE_EVENT_PERSIST_FAILED;
        break;
    case ITEM_SNAPSHOT_STORED:
        on_snapshot_stored(server, item->blob, &event);
        break;
    case ITEM_SNAPSHOT_RECEIVED:
        blob_unref(own->snapshot);
        own->snapshot = blob_ref(item->blob);
        event.type = NODE_EVENT_SNAPSHOT_DURABLE;
        event.snapshot_durable.index = item->blob->index;
        event.snapshot_durable.term = item->blob->term;
        event.snapshot_durable.members = members;
        node_kind_members(item->blob, members, &event.snapshot_durable.members_count);
        break;
    case ITEM_SNAPSHOT_REFUSED:
        server->sim->stats->snapshots_refused++;
        event.type = NODE_EVENT_SNAPSHOT_REFUSED;
        break;
    case ITEM_TICK:
        if (own->lazy_count > 0 && own->lazy_until_ms <= now_ms)
            node_kind_flush(server);
        if (own->timer_at_ms == 0 || own->timer_at_ms > now_ms)
            return;
        own->timer_at_ms = 0;
        break;
    case ITEM_TURN_END:
        event.type = NODE_EVENT_TURN_END;
        break;
    }
    node_kind_step(server, &event);
}

/* Start */

/* False: it failed. */
static bool recover(struct server *server, struct node_event *event)
{
    struct node_server *own = node_kind_of(server);

    event->now_ms = own->now_ms;
    event->log_room = event->snapshot_room = (uint64_t)1 << 40;
    node_step(own->node, event, node_kind_sink, server);
    return !own->failed;
}

static bool recover_all(struct server *server)
{
    struct sim *sim = server->sim;
    struct node_server *own = node_kind_of(server);
    struct disk *disk = &server->disk;
    struct node_event event = {.type = NODE_EVENT_RECOVERED_STATE};

    if (disk->state.term != 0) {
        event.recovered_state.term = disk->state.term;
        event.recovered_state.vote = disk->state.vote;
        if (!recover(server, &event))
            return false;
    }
    if (disk->snapshot != NULL) {
        own->snapshot = blob_ref(disk->snapshot);
        node_kind_restore(server, own->snapshot);
        event.type = NODE_EVENT_RECOVERED_SNAPSHOT;
        event.recovered_snapshot.index = disk->snapshot->index;
        event.recovered_snapshot.term = disk->snapshot->term;
        if (!recover(server, &event))
            return false;
        node_kind_restored(server, own->snapshot);
        /* An empty log may begin anywhere. */
        if (disk->log.last == disk->log.base && disk->log.base < disk->snapshot->index)
            entries_reset(&disk->log, disk->snapshot->index, disk->snapshot->term);
    }
    entries_reset(&own->log, disk->log.base, disk->log.base_term);
    for (uint64_t index = disk->log.base + 1; index <= disk->log.last; index++) {
        const struct entry *entry = entries_at(&disk->log, index);
        char buffer[CODEC_CHANGE_BYTES];
        event.type = NODE_EVENT_RECOVERED_ENTRY;
        event.recovered_entry.index = index;
        event.recovered_entry.term = entry->raft.term;
        event.recovered_entry.entry_type = entry->raft.type;
        event.recovered_entry.data = node_kind_entry_bytes(sim, entry, buffer);
        if (!recover(server, &event))
            return false;
        entries_write(&own->log, index, entry, 1);
    }
    own->commit = own->machine.applied;
    event.type = NODE_EVENT_START;
    return recover(server, &event);
}

static void start(struct server *server, uint64_t now_ms)
{
    struct sim *sim = server->sim;
    struct node_server *own = node_kind_of(server);
    struct node_config config = {
        .id = server->id,
        .incarnation = rng_next(&sim->rng) | 1,
        .ttl_ms = 10000,
        .op_timeout_ms = 4 * sim->plan.election_ms,
        .version = "sim",
        .members = sim->first_members,
        .members_count = server->starts_cluster ? sim->plan.servers : 0,
        .joins = !server->starts_cluster,
        .election_ms = sim->plan.election_ms,
        .heartbeat_ms = sim->plan.heartbeat_ms,
        .max_drift_permille = sim->plan.max_drift_permille,
    };

    memset(config.boot_id, (int)server->id, sizeof(config.boot_id));
    config.boot_id[0] = (uint8_t)rng_below(&sim->rng, 2); /* of the machine: it may be the same */
    machine_init(&own->machine, sim->first_members, config.members_count);
    madvise(own->memory, own->size, MADV_DONTNEED); /* zeroed */
    own->node = node_init(own->memory, &limits, &config);
    assert(own->node != NULL);
    own->now_ms = now_ms;
    trace_say(sim, server, "starts, entries %llu to %llu on its disk", server->disk.log.base + 1,
              server->disk.log.last, 0);
    if (!recover_all(server)) {
        sim_broken(sim, server, "does not start from its disk: %s",
                   own->actions[own->actions_count - 1].action.failed.reason);
        server->held_down = true; /* for good */
        server_crash(server, sim->now_us + 1000000);
        return;
    }
    oracle_started(server);
    after_step(server);
}

static bool wants_turn_end(const struct server *server)
{
    return node_wants_turn_end(node_kind_of(server)->node);
}

static uint64_t get_deadline_ms(const struct server *server)
{
    const struct node_server *own = node_kind_of(server);
    uint64_t deadline_ms = own->timer_at_ms == 0 ? UINT64_MAX : own->timer_at_ms;

    if (own->lazy_count > 0 && own->lazy_until_ms < deadline_ms)
        deadline_ms = own->lazy_until_ms;
    return deadline_ms;
}

static struct machine *get_machine(const struct server *server)
{
    return &node_kind_of(server)->machine;
}

static bool is_served(struct sim *sim)
{
    return world_of(sim)->served;
}

const struct server_kind server_node = {
    .name = "node",
    .create = create,
    .destroy = destroy,
    .start = start,
    .forget = forget,
    .step = step,
    .carry_out = node_kind_carry_out,
    .wants_turn_end = wants_turn_end,
    .get_deadline_ms = get_deadline_ms,
    .get_raft = get_raft,
    .get_machine = get_machine,
    .is_served = is_served,
    .end = world_end,
};

/*
 * What a node says is to be done: kept as it comes, and carried out behind the step, where the
 * server may be stopped on the way.
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "server_node.h"

static void release_action(struct kept_action *kept)
{
    message_unref(kept->message);
    free(kept->data);
    kept->message = NULL;
    kept->data = NULL;
}

void node_kind_forget_actions(struct server *server)
{
    struct node_server *own = node_kind_of(server);

    for (size_t i = 0; i < own->actions_count; i++)
        release_action(&own->actions[i]);
    own->actions_count = own->next = 0;
    for (size_t i = 0; i < own->lazy_count; i++)
        free(own->lazy[i].entries);
    own->lazy_count = 0;
}

static void keep_entry(struct server *server, struct kept_action *kept)
{
    struct sim *sim = server->sim;
    struct node_server *own = node_kind_of(server);
    const struct node_action *action = &kept->action;
    const uint64_t index = action->persist_entry.index;

    if (!node_kind_entry(sim, action->persist_entry.term, action->persist_entry.entry_type,
                         action->persist_entry.data, &kept->entry))
        sim_fail(sim, SIM_SAFETY, "server %u writes a change that is none", (unsigned)server->id);
    if (index <= own->log.base || index > own->log.last + 1 || index <= own->commit)
        sim_fail(
            sim, SIM_SAFETY, "server %u writes entry %llu, has %llu to %llu, %llu are committed",
            (unsigned)server->id, (unsigned long long)index, (unsigned long long)own->log.base + 1,
            (unsigned long long)own->log.last, (unsigned long long)own->commit);
    if (index <= own->log.last)
        sim->stats->entries_truncated += own->log.last - index + 1;
    kept->prev_term = entries_term_at(&own->log, index - 1);
    entries_write(&own->log, index, &kept->entry, 1);
}

void node_kind_sink(void *context, const struct node_action *action)
{
    struct server *server = context;
    struct node_server *own = node_kind_of(server);
    struct kept_action *kept;
    uint64_t term;

    if (action->type == NODE_ACTION_TIMER) {
        own->timer_at_ms = action->timer.at_ms;
        return;
    }
    if (action->type == NODE_ACTION_REPLY && action->reply.slot == 0) {
        own->answered_at_once = true;
        own->answer = action->reply;
        return;
    }
    own->actions = sim_grow(own->actions, &own->actions_capacity, own->actions_count + 1,
                            sizeof(*own->actions));
    kept = &own->actions[own->actions_count++];
    *kept = (struct kept_action){.action = *action};
    switch (action->type) {
    case NODE_ACTION_PERSIST_ENTRY:
        keep_entry(server, kept);
        break;
    case NODE_ACTION_PERSIST_RESET:
        entries_reset(&own->log, action->persist_reset.index, action->persist_reset.term);
        break;
    case NODE_ACTION_SEND:
        kept->message = node_kind_message(server, action->send.message);
        break;
    case NODE_ACTION_SNAPSHOT_CHUNK:
        kept->data = sim_alloc(action->snapshot_chunk.data.len);
        if (action->snapshot_chunk.data.len > 0)
            memcpy(kept->data, action->snapshot_chunk.data.data, action->snapshot_chunk.data.len);
        break;
    case NODE_ACTION_RESTORE: /* the node has applied all of it already, as it says */
        own->restoring = true;
        node_get_applied(own->node, &own->restore_index, &term);
        break;
    case NODE_ACTION_REPLAY:
        own->replay_first = action->replay.first;
        own->replay_last = action->replay.last;
        break;
    case NODE_ACTION_FAILED:
        own->failed = true;
        break;
    default:
        break;
    }
}

/* Carrying out */

void node_kind_flush(struct server *server)
{
    struct node_server *own = node_kind_of(server);

    for (size_t i = 0; i < own->lazy_count; i++)
        disk_write(server, own->lazy[i]);
    own->lazy_count = 0;
}

static void persist(struct server *server, struct disk_write write, bool hurried)
{
    struct node_server *own = node_kind_of(server);

    own->lazy = sim_grow(own->lazy, &own->lazy_capacity, own->lazy_count + 1, sizeof(*own->lazy));
    if (own->lazy_count == 0)
        own->lazy_until_ms = own->now_ms + LIMIT_UNHURRIED_MS;
    own->lazy[own->lazy_count++] = write;
    if (hurried)
        node_kind_flush(server);
}

static void persist_entry(struct server *server, const struct kept_action *kept)
{
    const struct node_action *action = &kept->action;
    struct entry *list = sim_alloc(sizeof(*list));

    *list = kept->entry;
    oracle_logged(server, action->persist_entry.index, list, kept->prev_term);
    persist(server,
            (struct disk_write){.type = DISK_ENTRIES,
                                .number = action->persist_entry.write,
                                .index = action->persist_entry.index,
                                .entries = list,
                                .count = 1},
            action->persist_entry.hurried);
}

static void take_chunk(struct server *server, const struct kept_action *kept)
{
    struct node_server *own = node_kind_of(server);
    const struct node_action *action = &kept->action;
    const uint64_t offset = action->snapshot_chunk.offset;
    const size_t size = action->snapshot_chunk.data.len;
    struct blob *blob;

    if (offset != 0 &&
        (own->received_index != action->snapshot_chunk.index || offset != own->received_bytes)) {
        sim_broken(server->sim, server, "writes a chunk of a snapshot where none belongs");
        return;
    }
    own->received_index = action->snapshot_chunk.index;
    own->received =
        sim_grow(own->received, &own->received_capacity, offset + size, sizeof(*own->received));
    if (size > 0)
        memcpy(own->received + offset, kept->data, size);
    own->received_bytes = offset + size;
    if (!action->snapshot_chunk.done)
        return;
    blob = blob_make((uint32_t)own->received_bytes);
    memcpy(blob->bytes, own->received, own->received_bytes);
    blob->index = action->snapshot_chunk.index;
    blob->term = action->snapshot_chunk.term;
    own->received_bytes = 0;
    own->received_index = 0;
    disk_store_snapshot(server, blob, false);
}

static void restore(struct server *server)
{
    struct node_server *own = node_kind_of(server);
    struct node_event event = {.type = NODE_EVENT_RESTORED};

    if (own->snapshot == NULL || own->snapshot->index != own->restore_index ||
        own->snapshot->index < own->machine.applied)
        sim_fail(server->sim, SIM_SAFETY, "server %u restores what is not there, or is older",
                 (unsigned)server->id);
    trace_say(server->sim, server, "restores snapshot %llu", own->snapshot->index, 0, 0);
    server->sim->stats->snapshots_installed++;
    node_begin_restore(own->node);
    node_kind_restore(server, own->snapshot);
    own->restoring = false;
    node_kind_restored(server, own->snapshot);
    node_kind_step(server, &event);
}

static void replay(struct server *server)
{
    struct sim *sim = server->sim;
    struct node_server *own = node_kind_of(server);
    const uint64_t last = own->replay_last;

    for (uint64_t index = own->replay_first; index <= last && !own->failed; index++) {
        const struct entry *entry = entries_at(&own->log, index);
        char buffer[CODEC_CHANGE_BYTES];
        struct node_event event = {.type = NODE_EVENT_REPLAYED, .replayed = {.index = index}};
        if (entry == NULL)
            sim_fail(sim, SIM_SAFETY, "server %u wants entry %llu back and has %llu to %llu",
                     (unsigned)server->id, (unsigned long long)index,
                     (unsigned long long)own->log.base + 1, (unsigned long long)own->log.last);
        if (entries_term_at(&server->disk.log, index) != entry->raft.term)
            sim_fail(sim, SIM_SAFETY, "server %u wants entry %llu back, which is not on its disk",
                     (unsigned)server->id, (unsigned long long)index);
        event.replayed.entry_type = entry->raft.type;
        event.replayed.data = node_kind_entry_bytes(sim, entry, buffer);
        if (index == last)
            own->replay_first = own->replay_last = 0;
        node_kind_step(server, &event);
    }
}

static void send_kept(struct server *server, struct kept_action *kept)
{
    struct raft_action action = {.type = RAFT_ACTION_SEND, .send = kept->message->raft};
    struct message *message = kept->message;

    trace_action(server, &action);
    kept->message = NULL;
    oracle_send(server, message, &node_kind_of(server)->log);
    network_send(server, message);
}

static void carry(struct server *server, struct kept_action *kept)
{
    struct sim *sim = server->sim;
    const struct node_action *action = &kept->action;

    switch (action->type) {
    case NODE_ACTION_PERSIST_STATE:
        trace_say(sim, server, "  . write %llu: term %llu, vote %llu", action->persist_state.write,
                  action->persist_state.term, action->persist_state.vote);
        oracle_persist_state(server, action->persist_state.term, action->persist_state.vote);
        persist(server,
                (struct disk_write){.type = DISK_STATE,
                                    .number = action->persist_state.write,
                                    .term = action->persist_state.term,
                                    .vote = action->persist_state.vote},
                true);
        break;
    case NODE_ACTION_PERSIST_ENTRY:
        trace_say(sim, server, "  . write %llu: entry %llu/%llu", action->persist_entry.write,
                  action->persist_entry.index, action->persist_entry.term);
        persist_entry(server, kept);
        break;
    case NODE_ACTION_HURRY:
        node_kind_flush(server);
        break;
    case NODE_ACTION_PERSIST_RESET:
        trace_say(sim, server, "  . write %llu: the log begins behind %llu/%llu",
                  action->persist_reset.write, action->persist_reset.index,
                  action->persist_reset.term);
        sim->stats->log_resets++;
        persist(server,
                (struct disk_write){.type = DISK_RESET,
                                    .number = action->persist_reset.write,
                                    .index = action->persist_reset.index,
                                    .term = action->persist_reset.term},
                true);
        break;
    case NODE_ACTION_SEND:
        send_kept(server, kept);
        break;
    case NODE_ACTION_SNAPSHOT_CHUNK:
        take_chunk(server, kept);
        break;
    case NODE_ACTION_REPLY:
        desk_reply(server, &action->reply);
        break;
    case NODE_ACTION_READY:
        desk_ready(server);
        break;
    case NODE_ACTION_LOST:
        desk_lost(server, action->lost.handle);
        break;
    case NODE_ACTION_FAILED:
        /* A static text without conversions. */
        trace_say(sim, server, action->failed.reason, 0, 0, 0);
        break;
    case NODE_ACTION_RESTORE: /* these two after the actions */
    case NODE_ACTION_REPLAY:
    case NODE_ACTION_SIGNAL: /* the rest is of no concern to the simulator */
    case NODE_ACTION_TIMER:
    case NODE_ACTION_WATCH:
    case NODE_ACTION_NOTICE:
    case NODE_ACTION_DRAINED:
        break;
    }
}

static void drop_log(struct server *server)
{
    struct node_server *own = node_kind_of(server);
    const uint64_t base = raft_get_log_base(node_look_raft(own->node));

    if (base > own->log.base) {
        entries_drop(&own->log, base);
        disk_drop_log(server, base);
    }
}

/* A node may fail because it leads no more, or because its disk does. */
static void stop_failed(struct server *server)
{
    struct sim *sim = server->sim;
    struct node_server *own = node_kind_of(server);

    for (size_t i = 0; i < own->actions_count; i++) {
        const struct node_action *action = &own->actions[i].action;
        if (action->type == NODE_ACTION_FAILED &&
            strcmp(action->failed.reason, "this node leads the cluster no more") != 0 &&
            strcmp(action->failed.reason, "a write to the log failed") != 0)
            sim_fail(sim, SIM_SAFETY, "server %u fails: %s", (unsigned)server->id,
                     action->failed.reason);
    }
    sim->stats->nodes_failed++;
    server_crash(server, sim->now_us + rng_skewed(&sim->rng, 100, 1000 * sim->plan.election_ms));
}

bool node_kind_carry_out(struct server *server)
{
    struct node_server *own = node_kind_of(server);
    const uint64_t boot = server->boot;

    if (own->node == NULL)
        return true;
    for (;;) {
        while (own->next < own->actions_count) {
            struct kept_action kept;
            if (server_stalls(server))
                return false;
            /* More may be added meanwhile, which moves the list. */
            kept = own->actions[own->next];
            own->actions[own->next].message = NULL;
            own->actions[own->next].data = NULL;
            own->next++;
            carry(server, &kept);
            release_action(&kept);
            if (server->boot != boot)
                return true;
        }
        if (own->failed) {
            stop_failed(server);
            return true;
        }
        if (own->restoring)
            restore(server);
        else if (own->replay_first != 0)
            replay(server);
        else
            break;
    }
    if (own->actions_count > 0) {
        own->actions_count = own->next = 0;
        drop_log(server);
        node_kind_maybe_begin_snapshot(server);
    }
    return true;
}

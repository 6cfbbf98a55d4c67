/* The node as a server of a cluster: messages, entries of other leaders, snapshots that are sent.
 */
#include <assert.h>
#include <string.h>

#include "node_internal.h"

enum raft_error node__init_raft(struct node *node, void *memory)
{
    const struct node_config *config = &node->config;
    const struct raft_member self = {.id = config->id, .voter = true};
    const bool alone = !config->members_count && !config->joins;
    struct raft_config raft = {
        .id = config->id,
        .members = alone ? &self : config->members,
        .members_count = alone ? 1 : config->members_count,
        .election_ms = config->election_ms ? config->election_ms : NODE_ELECTION_MS_DEFAULT,
        .heartbeat_ms = config->heartbeat_ms ? config->heartbeat_ms : NODE_HEARTBEAT_MS_DEFAULT,
        .max_drift_permille = config->max_drift_permille ? config->max_drift_permille
                                                         : NODE_MAX_DRIFT_PERMILLE_DEFAULT,
        .seed = config->incarnation,
    };
    enum raft_error error = raft_init(memory, &raft, &node->raft);
    node->config.members = NULL; /* the caller's memory */
    node->config.members_count = 0;
    return error;
}

void node__arm_for_raft(struct node *node)
{
    uint64_t deadline_ms = raft_get_deadline_ms(node->raft);
    if (deadline_ms != UINT64_MAX && !node->failed)
        node__arm_timer(node, deadline_ms);
}

/* Recovery */

void node__recovered_snapshot(struct node *node, const struct node_event *event)
{
    const uint64_t index = event->recovered_snapshot.index;
    struct raft_event raft_event = {.type = RAFT_EVENT_RECOVERED_SNAPSHOT,
                                    .recovered_snapshot = {index, event->recovered_snapshot.term,
                                                           node->members, node->members_count}};
    node->applied = node->commit = index;
    node->recovered_last = node->pending_last = index;
    node->pending_first = index + 1;
    node__raft(node, &raft_event);
}

void node__recovered_entry(struct node *node, const struct node_event *event)
{
    const uint64_t index = event->recovered_entry.index;
    const struct span data = event->recovered_entry.data;
    struct raft_event raft_event = {.type = RAFT_EVENT_RECOVERED_ENTRY,
                                    .recovered_entry = {index,
                                                        {.term = event->recovered_entry.term,
                                                         .type = event->recovered_entry.entry_type,
                                                         .bytes = (uint32_t)data.len}}};
    if (event->recovered_entry.entry_type == RAFT_ENTRY_CHANGE &&
        !codec_decode_change(data, &raft_event.recovered_entry.entry.change)) {
        node__fail(node, "the log holds a change of members that this version cannot read");
        return;
    }
    if (index > node->recovered_last) {
        node->recovered_last = node->pending_last = index;
        node->pending_first = index + 1;
    }
    node__raft(node, &raft_event);
}

void node__change(struct node *node, const struct node_event *event)
{
    struct raft_event raft_event = {.type = RAFT_EVENT_CHANGE,
                                    .change = {event->change.type, event->change.id}};
    if (node->leader && node__has_room_for(node, 1, CODEC_CHANGE_BYTES))
        node__raft(node, &raft_event);
}

/* Messages */

/* One that finds no room here, or is none, is as good as lost: it will be sent again. */
void node__message(struct node *node, struct span bytes)
{
    const struct raft_message *message = &node->message->message;
    if (!codec_decode_message(bytes, node->message))
        return;
    if (message->type == RAFT_MESSAGE_APPEND &&
        !node__has_room_for(node, message->append.count, bytes.len))
        return;
    node->message_under_way = true;
    struct raft_event event = {.type = RAFT_EVENT_MESSAGE,
                               .message = {message, node->message->entries}};
    node__raft(node, &event);
    node->message_under_way = false;
}

void node__send(struct node *node, const struct raft_action *action)
{
    struct node_action out = {.type = NODE_ACTION_SEND, .send = {&action->send}};
    node__emit(node, &out);
}

/* Snapshots from a leader */

void node__snapshot_chunk(struct node *node, const struct raft_action *action)
{
    assert(node->message_under_way);
    struct node_action out = {.type = NODE_ACTION_SNAPSHOT_CHUNK,
                              .snapshot_chunk = {.index = action->snapshot_chunk.index,
                                                 .term = action->snapshot_chunk.term,
                                                 .offset = action->snapshot_chunk.offset,
                                                 .done = action->snapshot_chunk.done}};
    out.snapshot_chunk.data = node->message->chunk;
    node__emit(node, &out);
}

void node__snapshot_durable(struct node *node, const struct node_event *event)
{
    struct raft_event raft_event = {.type = RAFT_EVENT_SNAPSHOT_DURABLE,
                                    .snapshot_durable = {event->snapshot_durable.index,
                                                         event->snapshot_durable.term,
                                                         event->snapshot_durable.members,
                                                         event->snapshot_durable.members_count}};
    node__raft(node, &raft_event);
}

void node__reset_log(struct node *node, const struct raft_action *action)
{
    struct node_action out = {.type = NODE_ACTION_PERSIST_RESET,
                              .persist_reset = {.write = action->persist_reset.write,
                                                .index = action->persist_reset.index,
                                                .term = action->persist_reset.term}};
    node__drop_entries(node, node->pending_first);
    node->recovered_last = node->pending_last = action->persist_reset.index;
    node->pending_first = node->pending_last + 1;
    node__emit(node, &out);
}

void node__restore_wanted(struct node *node, const struct raft_action *action)
{
    struct node_action out = {.type = NODE_ACTION_RESTORE};
    assert(!node->leader);
    node->restoring = true;
    node->applied = action->restore.index;
    if (node->commit < node->applied)
        node->commit = node->applied;
    node__emit(node, &out);
}

void node_begin_restore(struct node *node)
{
    assert(node->restoring);
    lock_table_clear(node->table);
}

void node__restored(struct node *node)
{
    assert(node->restoring);
    node->restoring = false;
    node__forget_entries(node);
    node__apply_committed(node);
}

bool node_wants_turn_end(const struct node *node)
{
    return !node->failed && raft_wants_turn_end(node->raft);
}

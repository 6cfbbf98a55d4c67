/* The node and the log: proposals go in, committed entries come out and are applied. */
#include <assert.h>
#include <errno.h>
#include <string.h>

#include "node_internal.h"

void node__fail(struct node *node, const char *reason)
{
    if (node->failed)
        return;
    node->failed = true;
    struct node_action action = {.type = NODE_ACTION_FAILED, .failed = {reason}};
    node__emit(node, &action);
}

static struct pending *pending_at(const struct node *node, uint64_t index)
{
    return &node->pending[index & (node->limits.pending_entries - 1)];
}

static uint64_t pending_count(const struct node *node)
{
    return node->pending_last + 1 - node->pending_first;
}

/* What is to become an entry. */
struct proposal {
    struct span data;
    uint32_t growth; /* of a snapshot by it, at most */
    bool hurried;    /* somebody waits for it */
};

/* Keeps the entry that is about to be persisted until it is applied and durable. */
static void remember(struct node *node, uint64_t index, const struct raft_entry *entry,
                     const struct proposal *proposal)
{
    struct span data = proposal->data;
    if (index <= node->pending_last)
        node__drop_entries(node, index);
    assert(index == node->pending_last + 1);
    assert(pending_count(node) < node->limits.pending_entries);
    node->pending_last = index;
    struct pending *pending = pending_at(node, index);
    *pending = (struct pending){.term = entry->term,
                                .len = (uint32_t)data.len,
                                .entry_type = entry->type,
                                .growth = proposal->growth};
    node->pending_growth += proposal->growth;
    bool fits = chunks_resize(&node->pending_chunks, &pending->chunks, 0, data.len);
    assert(fits); /* check_room(), node__has_room_for() */
    chunks_write(&node->pending_chunks, pending->chunks, 0, data);
}

static void forget(struct node *node, uint64_t index)
{
    struct pending *pending = pending_at(node, index);
    chunks_resize(&node->pending_chunks, &pending->chunks, pending->len, 0);
    node->pending_growth -= pending->growth;
}

void node__forget_entries(struct node *node)
{
    uint64_t last = raft_get_durable(node->raft);
    if (last > node->applied)
        last = node->applied;
    for (; node->pending_first <= last && node->pending_first <= node->pending_last;
         node->pending_first++)
        forget(node, node->pending_first);
}

void node__drop_entries(struct node *node, uint64_t first)
{
    for (; node->pending_last >= first && node->pending_last >= node->pending_first;
         node->pending_last--)
        forget(node, node->pending_last);
    if (node->recovered_last >= first) {
        node->recovered_last = node->pending_last = first - 1;
        node->pending_first = first;
    }
}

bool node_copy_entry(const struct node *node, uint64_t index, char *buffer, size_t *ret_len,
                     uint64_t *ret_term, uint32_t *ret_type)
{
    if (index < node->pending_first || index > node->pending_last)
        return false;
    const struct pending *pending = pending_at(node, index);
    chunks_read(&node->pending_chunks, pending->chunks, 0, buffer, pending->len);
    *ret_len = pending->len;
    *ret_term = pending->term;
    *ret_type = pending->entry_type;
    return true;
}

/* The bytes are in node->encoded. */
static struct span recall(struct node *node, uint64_t index)
{
    struct pending *pending = pending_at(node, index);
    chunks_read(&node->pending_chunks, pending->chunks, 0, node->encoded, pending->len);
    /* From now on the table itself counts. */
    node->pending_growth -= pending->growth;
    pending->growth = 0;
    return (struct span){node->encoded, pending->len};
}

/* Starts to serve: the daemon's incarnation ends what the last one held (DESIGN C5). */
static void log_incarnation(struct node *node)
{
    struct session_view session = {0};
    lock_table_get_session(node->table, node->config.id, &session);
    struct command command = {.type = COMMAND_INCARNATION, .replaces = session.incarnation};
    memcpy(command.boot_id, node->config.boot_id, BOOT_ID_BYTES);
    if (node__propose(node, &command, true))
        node__fail(node, "no room in the log for the start of this daemon");
}

static void incarnation_applied(struct node *node, const struct command_result *result)
{
    if (result->error == -ESTALE) {
        log_incarnation(node);
    } else if (result->error) {
        node__fail(node, "the cluster has no room for another node");
    } else {
        node->ready = true;
        struct node_action action = {.type = NODE_ACTION_READY};
        node__emit(node, &action);
        node__time_delays(node, 0);
    }
}

static bool is_own(const struct node *node, const struct command *command)
{
    return command->node == node->config.id && command->incarnation == node->incarnation;
}

static void on_result(void *context, const struct command_result *result)
{
    struct node *node = context;
    node__tell_result(node, node->applying, result);
    if (!is_own(node, node->applying))
        return;
    if (node->applying->type == COMMAND_INCARNATION)
        incarnation_applied(node, result);
    else
        node__applied(node, node->applying, result);
}

/* Whose request it is, where it takes claims away from others. */
static void find_ender(struct node *node, const struct command *command)
{
    bool ends = command->type == COMMAND_UNLINK || command->type == COMMAND_FORCE;
    uint32_t slot =
        ends && is_own(node, command) ? node__request_slot(node, command->seq) : NODE_NO_SLOT;
    node->ender = (struct process){0};
    if (slot == NODE_NO_SLOT)
        return;
    node->ender = node__request_at(node, slot)->process;
    node->ender_uid = node__request_at(node, slot)->uid;
}

static void apply(struct node *node, uint32_t entry_type, struct span data)
{
    node->applied++;
    node->applied_ms = node->now_ms;
    if (entry_type != RAFT_ENTRY_COMMAND)
        return;
    struct command command;
    if (!codec_decode_command(data, &node->storage, &command)) {
        node__fail(node, "the log holds an entry that this version cannot read");
        return;
    }
    find_ender(node, &command);
    node->applying = &command;
    node__tell_command(node, &command);
    lock_table_apply_in_order(node->table, &command, on_result, node__effect, node);
    node->applying = NULL;
}

void node__apply_committed(struct node *node)
{
    while (node->applied < node->commit && !node->failed && !node->restoring) {
        uint64_t index = node->applied + 1;
        if (index <= node->recovered_last) {
            if (node->replay_last)
                return;
            node->replay_last =
                node->commit < node->recovered_last ? node->commit : node->recovered_last;
            struct node_action action = {.type = NODE_ACTION_REPLAY,
                                         .replay = {index, node->replay_last}};
            node__emit(node, &action);
            return;
        }
        enum raft_entry_type type = pending_at(node, index)->entry_type;
        apply(node, type, recall(node, index));
        node__forget_entries(node);
    }
    if (node->leader && !node->seq && !node->ready && !node->failed &&
        node->applied == node->pending_last)
        log_incarnation(node);
}

void node__replayed(struct node *node, const struct node_event *event)
{
    if (event->replayed.index != node->applied + 1 || event->replayed.index > node->replay_last) {
        node__fail(node, "the log was read back in a wrong order");
        return;
    }
    apply(node, event->replayed.entry_type, event->replayed.data);
    if (node->applied == node->replay_last) {
        node->replay_last = 0;
        node__apply_committed(node);
    }
}

static void persist_entry(struct node *node, uint64_t write, uint64_t index,
                          const struct raft_entry *entry, const struct proposal *proposal)
{
    struct span data = proposal->data;
    struct node_action out = {.type = NODE_ACTION_PERSIST_ENTRY,
                              .persist_entry = {.write = write,
                                                .index = index,
                                                .term = entry->term,
                                                .entry_type = entry->type,
                                                .hurried = proposal->hurried}};
    out.persist_entry.data = data;
    remember(node, index, entry, proposal);
    uint64_t cost = data.len + LIMIT_RECORD_OVERHEAD_BYTES;
    node->log_room -= cost < node->log_room ? cost : node->log_room;
    node->counts.log_entries++;
    node->counts.log_bytes += data.len;
    node__emit(node, &out);
}

/* They are the last ones of a leader's message, or one of our own: a proposal, a leader's no-op, a
 * change of members. */
static void persist_entries(struct node *node, const struct raft_action *action,
                            const struct proposal *proposal)
{
    const uint64_t write = action->persist_entries.write;
    const uint64_t first = action->persist_entries.first;
    const uint64_t last = action->persist_entries.last;
    if (!node->message_under_way || node->leader) {
        char change[CODEC_CHANGE_BYTES];
        struct proposal own = *proposal;
        const struct raft_entry *entry = &action->persist_entries.entry;
        assert(first == last);
        if (entry->type == RAFT_ENTRY_CHANGE)
            own.data = (struct span){change, codec_encode_change(&entry->change, change)};
        persist_entry(node, write, first, entry, &own);
        return;
    }
    const struct codec_peer_message *message = node->message;
    for (uint64_t index = first; index <= last; index++) {
        size_t at = (size_t)(index - message->message.append.prev_index - 1);
        /* The write is durable when the last of them is. */
        const struct proposal theirs = {
            .data = message->data[at], .growth = LIMIT_SNAPSHOT_GROWTH_BYTES, .hurried = true};
        persist_entry(node, index == last ? write : write - 1, index, &message->entries[at],
                      &theirs);
    }
}

/* What callers hold through a node that leads no more cannot be vouched for yet: it starts anew,
 * and its incarnation ends that. */
static void on_role(struct node *node, enum raft_role role)
{
    const bool led = node->leader;
    node->leader = role == RAFT_LEADER;
    if (role == RAFT_FAILED)
        node__fail(node, "a write to the log failed");
    else if (led && !node->leader)
        node__fail(node, "this node leads the cluster no more");
}

/* Carries out the actions of one raft step. */
static void carry_out(struct node *node, const struct raft_actions *actions,
                      const struct proposal *proposal)
{
    bool committed = false;
    for (size_t i = 0; i < actions->count; i++) {
        const struct raft_action *action = &actions->items[i];
        switch (action->type) {
        case RAFT_ACTION_PERSIST_STATE: {
            struct node_action out = {.type = NODE_ACTION_PERSIST_STATE,
                                      .persist_state = {action->persist_state.write,
                                                        action->persist_state.term,
                                                        action->persist_state.vote}};
            node__emit(node, &out);
            break;
        }
        case RAFT_ACTION_PERSIST_ENTRIES:
            persist_entries(node, action, proposal);
            break;
        case RAFT_ACTION_COMMIT:
            node->commit = action->commit.index;
            committed = true;
            break;
        case RAFT_ACTION_ROLE:
            on_role(node, action->role.role);
            break;
        case RAFT_ACTION_PERSIST_RESET:
            node__reset_log(node, action);
            break;
        case RAFT_ACTION_SEND:
            node__send(node, action);
            break;
        case RAFT_ACTION_SNAPSHOT_CHUNK:
            node__snapshot_chunk(node, action);
            break;
        case RAFT_ACTION_RESTORE:
            node__restore_wanted(node, action);
            break;
        case RAFT_ACTION_READ_READY:
        case RAFT_ACTION_READ_FAILED:
            assert(false); /* nobody asks: callers are served by the leader alone */
            break;
        }
    }
    if (committed)
        node__apply_committed(node);
    else
        node__forget_entries(node);
}

void node__raft(struct node *node, struct raft_event *event)
{
    struct raft_actions actions;
    event->now_ms = node->now_ms;
    enum raft_error error = raft_step(node->raft, event, &actions);
    const bool recovers = event->type <= RAFT_EVENT_START;
    if (error != RAFT_OK && error != RAFT_ERR_FAILED && recovers) {
        node__fail(node, raft_error_text(error));
        return;
    }
    static const struct proposal none = {.hurried = true};
    carry_out(node, &actions, &none);
}

bool node__has_room_for(const struct node *node, size_t entries, uint64_t bytes)
{
    uint64_t chunks = bytes / CHUNK_DATA_BYTES + entries;
    return pending_count(node) + entries < node->limits.pending_entries &&
           node->pending_chunks.used + chunks <= node->pending_chunks.capacity &&
           node->log_room >= bytes + entries * LIMIT_RECORD_OVERHEAD_BYTES;
}

/* Whether new work still leaves room for giving back all that is held and under way, and for a
 * snapshot. */
static int check_room(struct node *node, size_t len, uint64_t growth, bool gives_back)
{
    uint64_t commands_reserved = (uint64_t)LIMIT_GIVE_BACK_COMMANDS *
                                 (node->claims_held + node->acquires + node->delays.used + 1);
    uint64_t reserve = node_log_reserve(node) + LIMIT_GIVE_BACK_BYTES;
    uint64_t entries_free = node->limits.pending_entries - pending_count(node);
    uint64_t bytes_free =
        (uint64_t)(node->pending_chunks.capacity - node->pending_chunks.used) * CHUNK_DATA_BYTES;
    /* New work finds room or does not, whatever its size: so "full" is one state. */
    uint64_t log_cost = (gives_back ? len : LIMIT_COMMAND_BYTES) + LIMIT_RECORD_OVERHEAD_BYTES;
    if (gives_back)
        commands_reserved = reserve = 0;

    bool log_full = node->log_room < log_cost + reserve;
    bool snapshot_full =
        node->snapshot_room < node_snapshot_bytes(node) + LIMIT_SNAPSHOT_GROWTH_BYTES;
    bool full = log_full || snapshot_full;
    if (full && !gives_back && !node->full) {
        struct node_action notice = {.type = NODE_ACTION_NOTICE,
                                     .notice = {.type = NODE_NOTICE_LOG_FULL}};
        node__emit(node, &notice);
    }
    if (!gives_back)
        node->full = full;
    if (log_full || (snapshot_full && growth))
        return -ENOSPC;
    if (entries_free <= commands_reserved || bytes_free < len + CHUNK_DATA_BYTES + reserve)
        return -ENOLCK;
    return 0;
}

int node__propose(struct node *node, struct command *command, bool gives_back)
{
    return node__propose_when(node, command, gives_back, true);
}

int node__propose_when(struct node *node, struct command *command, bool gives_back, bool hurried)
{
    if (node->failed || !node->leader)
        return -ETIMEDOUT;
    command->node = node->config.id;
    command->incarnation = node->incarnation;
    command->seq = command->type == COMMAND_INCARNATION ? 0 : node->seq + 1;
    command->stamp_ms = node->wall_ms;
    size_t len = codec_encode_command(command, node->encoded, sizeof node->encoded);
    assert(len);
    uint64_t growth = lock_table_snapshot_growth(command);
    int error = check_room(node, len, growth, gives_back);
    if (error)
        return error;

    struct raft_event event = {
        .type = RAFT_EVENT_PROPOSE, .now_ms = node->now_ms, .propose = {1, (uint32_t)len}};
    struct raft_actions actions;
    enum raft_error refused = raft_step(node->raft, &event, &actions);
    if (refused == RAFT_ERR_FULL)
        return -ENOLCK;
    if (refused != RAFT_OK)
        return -ETIMEDOUT;
    if (command->type != COMMAND_INCARNATION)
        node->seq++;
    struct proposal proposal = {
        .data = {node->encoded, len}, .growth = (uint32_t)growth, .hurried = hurried};
    carry_out(node, &actions, &proposal);
    return 0;
}

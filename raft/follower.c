/*
 * What a leader says: entries and heartbeats (thesis 3.5), and chunks of a snapshot (thesis 5.3).
 * An answer says no more than what was compared with the leader's log, and is durable here.
 */
#include "internal.h"

static uint64_t min(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static uint64_t max(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

/* Takes the sender for the term's leader. False where that cannot be: one that is not known to be
 * of a sound cluster is not listened to. */
static bool hear_leader(struct raft *raft, const struct raft_message *message,
                        struct raft_actions *actions)
{
    if (raft->role == RAFT_LEADER || (raft->leader != 0 && raft->leader != message->from))
        return false;
    if (raft->role != RAFT_FOLLOWER)
        raft__follow(raft, raft->term, actions);
    raft->leader = message->from;
    raft->heard_ms = raft->now_ms;
    raft__reset_election_timer(raft);
    /* What is committed is in every later leader's log (thesis 3.6.3). */
    raft->verified = max(raft->verified, raft->commit);
    return true;
}

static void acknowledge(struct raft *raft, struct raft_actions *actions)
{
    struct raft_message *reply;

    if (!raft__may_speak(raft)) {
        raft->owes_reply = true;
        return;
    }
    raft->owes_reply = false;
    raft->acknowledged = min(raft->verified, raft->durable);
    reply = raft__send(raft, RAFT_MESSAGE_APPEND_REPLY, raft->leader, actions);
    reply->append_reply.round = raft->owed_round;
    reply->append_reply.match =
        RAFT_MUTANT(REPLY_BEFORE_FDATASYNC) ? raft->verified : raft->acknowledged;
}

/* The commit index waits for our own disk too, so that a snapshot of what is applied is always one
 * of durable entries. */
static void advance_commit(struct raft *raft, struct raft_actions *actions)
{
    uint64_t index = min(raft->leader_commit, min(raft->verified, raft->durable));

    if (RAFT_MUTANT(COMMIT_UNVERIFIED_SUFFIX))
        index = min(raft->leader_commit, raft->log.last);
    if (index > raft->commit)
        raft__commit(raft, index, actions);
}

/* Says where the leader should look for the last entry that we share. Its log has nothing of a
 * later term than prev_term before prev_index, so ours cannot agree with it there (thesis 3.5,
 * "accelerated log backtracking"). */
static void reject(struct raft *raft, const struct raft_message *message, bool wants_snapshot,
                   struct raft_actions *actions)
{
    struct raft_message *reply;
    uint64_t hint = message->append.prev_index > 0 ? message->append.prev_index - 1 : 0;

    if (!raft__may_speak(raft))
        return;
    hint = raft__log_find(&raft->log, min(hint, raft->log.last), message->append.prev_term);
    reply = raft__send(raft, RAFT_MESSAGE_APPEND_REPLY, message->from, actions);
    reply->append_reply.round = message->append.round;
    reply->append_reply.rejected = true;
    reply->append_reply.wants_snapshot = wants_snapshot;
    reply->append_reply.rejected_index = message->append.prev_index;
    reply->append_reply.hint_index = hint;
    reply->append_reply.hint_term = raft__log_term_at(&raft->log, hint);
    reply->append_reply.match = min(raft->verified, raft->durable);
}

static bool are_sound(const struct raft_message *message, const struct raft_entry *entries)
{
    uint64_t term = message->append.prev_term;

    if (message->append.count > RAFT_APPEND_ENTRIES_MAX ||
        message->append.prev_index > RAFT_INDEX_MAX)
        return false;
    for (uint32_t i = 0; i < message->append.count; i++) {
        if (entries[i].term < term || entries[i].term > message->term || entries[i].term == 0 ||
            entries[i].bytes > RAFT_ENTRY_BYTES_MAX)
            return false;
        term = entries[i].term;
    }
    return true;
}

/* Whether the entries would find room, however little of the log they replace. */
static bool have_room(const struct raft *raft, uint64_t first, const struct raft_entry *entries,
                      uint32_t count)
{
    /* The base has no run that could go on. */
    uint64_t term = first - 1 > raft->log.base ? raft__log_term_at(&raft->log, first - 1) : 0;
    size_t runs = 0;
    size_t changes = 0;

    for (uint32_t i = 0; i < count; i++) {
        runs += entries[i].term != term;
        term = entries[i].term;
        changes += entries[i].type == RAFT_ENTRY_CHANGE;
    }
    return raft->log.runs_count + runs <= RAFT_TERM_RUNS_MAX &&
           raft__members_have_room(raft, changes);
}

/* Replaces what the log has from `first` on. Entries that are the same are never touched: an append
 * that was delayed says less than later ones, and would cut off what those brought (thesis 3.5). */
static void take_entries(struct raft *raft, uint64_t first, const struct raft_entry *entries,
                         uint32_t count, struct raft_actions *actions)
{
    assert(first > raft->commit);
    if (first <= raft->log.last)
        raft__truncate(raft, first - 1);
    for (uint32_t i = 0; i < count; i++) {
        raft__log_append(&raft->log, 1, entries[i].term);
        raft__note_size(raft, first + i, entries[i].bytes);
        if (entries[i].type == RAFT_ENTRY_CHANGE)
            raft__members_append(raft, first + i, &entries[i].change);
    }
    raft__persist_entries(raft, first, &entries[count - 1], actions);
}

void raft__on_append(struct raft *raft, const struct raft_message *message,
                     const struct raft_entry *entries, struct raft_actions *actions)
{
    const uint64_t prev = message->append.prev_index;
    const uint32_t count = message->append.count;
    uint32_t known = 0;
    bool has_room = true;

    if (!are_sound(message, entries) || !hear_leader(raft, message, actions))
        return;
    if (RAFT_MUTANT(COMMIT_UNVERIFIED_SUFFIX)) {
        raft->leader_commit = max(raft->leader_commit, message->append.commit);
        advance_commit(raft, actions);
    }

    /* The first configuration is in no entry, so a server that joins begins with a snapshot: by the
     * changes in the log alone it could take itself for the only voter. */
    if (raft->members.base_count == 0) {
        reject(raft, message, true, actions);
        return;
    }
    if (prev >= raft->log.base) {
        if (prev > raft->log.last ||
            raft__log_term_at(&raft->log, prev) != message->append.prev_term) {
            reject(raft, message, false, actions);
            return;
        }
    } else {
        /* Those that are gone here were committed, so they are the leader's. */
        known = (uint32_t)min(count, raft->log.base - prev);
    }
    while (known < count && prev + 1 + known <= raft->log.last &&
           raft__log_term_at(&raft->log, prev + 1 + known) == entries[known].term)
        known++;
    if (known < count) {
        const uint64_t first = prev + 1 + known;
        /* No leader contradicts what is committed, or what it said itself: not one of ours. */
        if (first <= raft->verified ||
            entries[known].term < raft__log_term_at(&raft->log, first - 1))
            return;
        has_room = have_room(raft, first, entries + known, count - known);
        if (has_room)
            take_entries(raft, first, entries + known, count - known, actions);
    }

    raft->verified = max(raft->verified, min(prev + (has_room ? count : known), raft->log.last));
    raft->leader_commit = max(raft->leader_commit, message->append.commit);
    advance_commit(raft, actions);
    /* Only a snapshot gives room, and it can be made of what is known to be committed. */
    if (!has_room)
        return;
    raft->owed_round = max(raft->owed_round, message->append.round);
    if (known < count)
        raft->owes_reply = true;
    else
        acknowledge(raft, actions);
}

void raft__follower_durable(struct raft *raft, struct raft_actions *actions)
{
    if (raft->role != RAFT_FOLLOWER || raft->leader == 0)
        return;
    advance_commit(raft, actions);
    if (raft->owes_reply || min(raft->verified, raft->durable) > raft->acknowledged)
        acknowledge(raft, actions);
}

/* Our term tells it that it leads no more (thesis 3.3). */
void raft__refuse_old_leader(struct raft *raft, const struct raft_message *message,
                             struct raft_actions *actions)
{
    if (raft__may_speak(raft))
        raft__send(raft, RAFT_MESSAGE_APPEND_REPLY, message->from, actions)->append_reply.rejected =
            true;
}

static bool is_incoming(const struct raft *raft, const struct raft_message *message)
{
    const struct raft__incoming *incoming = &raft->incoming;

    return incoming->from == message->from && incoming->term == message->term &&
           incoming->index == message->snapshot.index &&
           incoming->index_term == message->snapshot.index_term;
}

/* Chunks come in order; whatever else comes is answered by the offset that is wanted, from which
 * the leader resumes. Another leader's snapshot of the same index may be other bytes, so that one
 * begins anew. */
void raft__on_snapshot(struct raft *raft, const struct raft_message *message,
                       struct raft_actions *actions)
{
    struct raft__incoming *incoming = &raft->incoming;
    struct raft_message *reply;

    if (message->snapshot.index == 0 || message->snapshot.index > RAFT_INDEX_MAX ||
        message->snapshot.index_term == 0 || message->snapshot.index_term > message->term ||
        !hear_leader(raft, message, actions))
        return;
    raft->owed_round = max(raft->owed_round, message->snapshot.round);
    if (message->snapshot.index <= raft->commit) {
        acknowledge(raft, actions);
        return;
    }
    /* A snapshot must not be on disk before the term that it may be of. */
    if (!raft__may_speak(raft))
        return;
    /* While the caller makes one durable, its file is not to be touched. */
    if (!incoming->whole && !is_incoming(raft, message))
        *incoming = (struct raft__incoming){.from = message->from,
                                            .term = message->term,
                                            .index = message->snapshot.index,
                                            .index_term = message->snapshot.index_term};
    if (!incoming->whole && incoming->offset == message->snapshot.offset &&
        (message->snapshot.bytes > 0 || message->snapshot.done)) {
        struct raft_action *action = raft__add_action(actions, RAFT_ACTION_SNAPSHOT_CHUNK);
        action->snapshot_chunk.index = incoming->index;
        action->snapshot_chunk.term = incoming->index_term;
        action->snapshot_chunk.offset = incoming->offset;
        action->snapshot_chunk.done = message->snapshot.done;
        incoming->offset += message->snapshot.bytes;
        incoming->whole = message->snapshot.done;
    }
    reply = raft__send(raft, RAFT_MESSAGE_SNAPSHOT_REPLY, message->from, actions);
    reply->snapshot_reply.index = message->snapshot.index;
    reply->snapshot_reply.offset = is_incoming(raft, message) ? incoming->offset : 0;
    reply->snapshot_reply.round = message->snapshot.round;
}

/* Where our log has the snapshot's last entry, what follows on it stays; else nothing of it can be
 * trusted, and the log begins anew behind the snapshot (thesis 5.3). */
void raft__snapshot_durable(struct raft *raft, const struct raft_event *event,
                            struct raft_actions *actions)
{
    const uint64_t index = event->snapshot_durable.index;
    const uint64_t term = event->snapshot_durable.term;
    struct raft_action *action;

    assert(raft->started);
    raft->incoming = (struct raft__incoming){0};
    if (!raft__members_are_sound(event->snapshot_durable.members,
                                 event->snapshot_durable.members_count))
        return;
    if (index <= raft->commit) {
        /* Appends went beyond it meanwhile. But it stands in place of an older one, so it is what
         * this server has to send when it leads. */
        if (index > raft->snapshot_index && raft__log_term_at(&raft->log, index) == term) {
            raft->snapshot_index = index;
            raft->snapshot_term = term;
        }
        return;
    }

    /* No leader contradicts what it said itself: not one of ours. */
    if (index <= raft->verified && raft__log_term_at(&raft->log, index) != term)
        return;

    if (raft__log_term_at(&raft->log, index) == term) {
        raft__members_compact(raft, index);
        raft__log_compact(&raft->log, index);
    } else {
        if (raft->log.last > raft->commit)
            raft__truncate(raft, raft->commit);
        raft__members_compact(raft, index);
        raft__log_begin_behind(&raft->log, index, term);
        raft__persist_reset(raft, actions);
    }
    /* The snapshot holds what was written up to there. */
    raft->durable = max(raft->durable, index);
    for (uint64_t write = raft->writes.durable + 1; write <= raft->writes.issued; write++) {
        uint64_t *covers = &raft->writes.covers[write % RAFT_WRITES_MAX];
        *covers = max(*covers, index);
    }
    raft->commit = index;
    raft->snapshot_index = index;
    raft->snapshot_term = term;
    if (!RAFT_MUTANT(SNAPSHOT_STALE_CONFIGURATION))
        raft__members_rebase(raft, event->snapshot_durable.members,
                             event->snapshot_durable.members_count);
    action = raft__add_action(actions, RAFT_ACTION_RESTORE);
    action->restore.index = index;
    action->restore.term = term;

    raft->verified = max(raft->verified, index);
    if (raft->role == RAFT_FOLLOWER && raft->leader != 0) {
        advance_commit(raft, actions);
        acknowledge(raft, actions);
    }
}

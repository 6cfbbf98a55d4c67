/*
 * The leader: it appends to its log, hears what others have of it, and knows by that what is
 * committed (thesis 3.5 and 3.6.2). It steps down where it hears no majority (thesis 6.2).
 */
#include "internal.h"

/* The no-op lets the leader commit, in its own term, whatever earlier terms left behind (thesis
 * 6.4; 3.6.2 forbids it to commit those entries for themselves). */
void raft__lead(struct raft *raft, struct raft_actions *actions)
{
    const struct raft_entry noop = {.term = raft->term, .type = RAFT_ENTRY_NOOP};

    assert(RAFT_MUTANT(REPLY_BEFORE_FDATASYNC) || raft__may_speak(raft));

    raft__set_role(raft, RAFT_LEADER, actions);
    raft->round = 0;
    raft->transfer_to = 0;
    raft->transfer_sent = false;
    raft->reads.waiting = 0;
    raft->reads.rounds_count = 0;
    for (size_t i = 0; i < raft->peers_count; i++) {
        raft__probe_from(raft, &raft->peers[i], raft->log.last + 1);
        raft->peers[i].match = 0;
        raft->peers[i].round = 0;
        raft->peers[i].told = 0;
        raft->peers[i].wants_snapshot = false;
        raft->peers[i].heard_ms = raft->now_ms;
    }
    raft->noop = raft->log.last + 1;
    raft__append(raft, 1, &noop, actions);
    raft__begin_round(raft);
    raft->heartbeat_deadline_ms =
        raft__is_alone(raft) ? UINT64_MAX : raft->now_ms + raft->heartbeat_ms;
}

/* A leader only ever appends, with its own term (thesis 3.5, "Leader Append-Only"). */
void raft__append(struct raft *raft, uint64_t count, const struct raft_entry *entry,
                  struct raft_actions *actions)
{
    uint64_t first = raft->log.last + 1;

    assert(raft->role == RAFT_LEADER && entry->term == raft->term);
    raft__log_append(&raft->log, count, raft->term);
    for (uint64_t i = 0; i < count; i++)
        raft__note_size(raft, first + i, entry->bytes);
    raft__persist_entries(raft, first, entry, actions);
}

enum raft_error raft__propose(struct raft *raft, uint32_t count, uint32_t bytes,
                              struct raft_actions *actions)
{
    const struct raft_entry entry = {
        .term = raft->term, .type = RAFT_ENTRY_COMMAND, .bytes = bytes};

    assert(count >= 1 && bytes <= RAFT_ENTRY_BYTES_MAX);

    if (raft->role != RAFT_LEADER)
        return RAFT_ERR_NOT_LEADER;
    if (raft__writes_full(raft))
        return RAFT_ERR_FULL;
    raft__append(raft, count, &entry, actions);
    return RAFT_OK;
}

bool raft__knows_commit(const struct raft *raft)
{
    return raft->commit >= raft->noop;
}

/* What a voter has durable; the leader's own disk counts like any other (thesis 10.2.1). */
static uint64_t match_of(const struct raft *raft, size_t at)
{
    return at == raft->self ? raft->durable : raft->peers[at].match;
}

/* Entries are committed once a majority has them durable, and only if the newest of them is of the
 * leader's own term; older ones are committed along with it. An older entry on a majority of disks
 * alone can still be overwritten by a later leader (thesis 3.6.2, figure 3.7). */
void raft__advance_commit(struct raft *raft, struct raft_actions *actions)
{
    uint64_t index;

    if (raft->role != RAFT_LEADER)
        return;
    index = raft__majority_reached(raft, match_of);
    if (index <= raft->commit)
        return;
    if (raft__log_term_at(&raft->log, index) != raft->term && !RAFT_MUTANT(OLD_TERM_COMMIT))
        return;
    raft__commit(raft, index, actions);
    raft__reads_check(raft, actions);
    /* A leader that is removed, or votes no more, leads until that is committed (thesis 4.2.2). */
    if (!raft__is_voter(raft) && !raft__change_is_pending(raft) && raft__knows_commit(raft))
        raft__follow(raft, raft->term, actions);
}

/* Any answer in our own term shows that its sender followed us after the round had begun. */
static struct raft__peer *hear_peer(struct raft *raft, const struct raft_message *message,
                                    uint64_t round)
{
    struct raft__peer *peer = raft->role == RAFT_LEADER ? raft__peer(raft, message->from) : NULL;

    if (peer == NULL || round > raft->round)
        return NULL;
    peer->heard_ms = raft->now_ms;
    if (round > peer->round)
        peer->round = round;
    return peer;
}

static void on_rejected(struct raft *raft, struct raft__peer *peer,
                        const struct raft_message *message)
{
    const uint64_t rejected = message->append_reply.rejected_index;
    uint64_t hint = message->append_reply.hint_index;

    /* An answer to a message that later ones have overtaken. */
    if (rejected <= peer->match || peer->progress == RAFT__SNAPSHOT ||
        (peer->progress == RAFT__PROBE && rejected != peer->next - 1))
        return;
    if (hint >= rejected)
        hint = rejected - 1;
    if (hint > raft->log.last)
        hint = raft->log.last;
    if (hint < raft->log.base) {
        raft__probe_from(raft, peer, hint + 1);
        return;
    }
    hint = raft__log_find(&raft->log, hint, message->append_reply.hint_term);
    raft__probe_from(raft, peer, (hint > peer->match ? hint : peer->match) + 1);
}

void raft__on_append_reply(struct raft *raft, const struct raft_message *message,
                           struct raft_actions *actions)
{
    const uint64_t match = message->append_reply.match;
    struct raft__peer *peer = hear_peer(raft, message, message->append_reply.round);

    if (peer == NULL || match > raft->log.last)
        return;
    if (match > peer->match)
        peer->match = match;
    peer->wants_snapshot = message->append_reply.rejected && message->append_reply.wants_snapshot;
    if (peer->wants_snapshot) {
        if (peer->progress != RAFT__SNAPSHOT && raft->snapshot_index > 0)
            raft__send_snapshot(peer);
    } else if (message->append_reply.rejected) {
        on_rejected(raft, peer, message);
    } else if (peer->progress == RAFT__REPLICATE) {
        raft__forget_sent(peer, peer->match);
        if (peer->next <= peer->match)
            peer->next = peer->match + 1;
    } else if (peer->match >= raft->log.base &&
               (peer->progress == RAFT__PROBE
                    ? message->append_reply.match + 1 >= peer->next
                    : peer->snapshot != 0 && peer->match >= peer->snapshot)) {
        raft__probe_from(raft, peer, peer->match + 1);
        peer->progress = RAFT__REPLICATE;
    }
    raft__advance_commit(raft, actions);
    if (raft->role != RAFT_LEADER)
        return;
    raft__reads_check(raft, actions);
    raft__transfer_check(raft, actions);
}

void raft__on_snapshot_reply(struct raft *raft, const struct raft_message *message,
                             struct raft_actions *actions)
{
    struct raft__peer *peer = hear_peer(raft, message, message->snapshot_reply.round);

    if (peer == NULL)
        return;
    if (peer->progress == RAFT__SNAPSHOT && peer->snapshot == message->snapshot_reply.index &&
        peer->offset != message->snapshot_reply.offset) {
        peer->offset = message->snapshot_reply.offset;
        peer->chunk_sent = false;
    }
    raft__reads_check(raft, actions);
}

static uint64_t heard_of(const struct raft *raft, size_t at)
{
    return at == raft->self ? raft->now_ms : raft->peers[at].heard_ms;
}

void raft__leader_tick(struct raft *raft, struct raft_actions *actions)
{
    if (raft->transfer_to != 0 && raft->now_ms >= raft->transfer_deadline_ms)
        raft->transfer_to = 0;
    if (raft->now_ms < raft->heartbeat_deadline_ms)
        return;
    if (raft__is_alone(raft)) {
        raft->heartbeat_deadline_ms = UINT64_MAX;
        return;
    }
    /* Cut off from the majority, it would keep its callers waiting for what cannot be (thesis 6.2).
     */
    if (raft__majority_reached(raft, heard_of) + raft->election_ms < raft->now_ms) {
        raft__follow(raft, raft->term, actions);
        return;
    }
    raft->heartbeat_deadline_ms = raft->now_ms + raft->heartbeat_ms;
    raft__begin_round(raft);
}

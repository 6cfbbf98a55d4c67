/*
 * What a leader sends, and how much: appends follow each other without waiting for acknowledgements
 * (thesis 10.2.1), up to a number of messages and bytes in flight; a peer that needs entries that
 * are gone gets a snapshot (thesis 5.3).
 */
#include "internal.h"

static void send_append(struct raft *raft, struct raft__peer *peer, uint32_t count, uint32_t bytes,
                        struct raft_actions *actions);
static void send_chunk(struct raft *raft, struct raft__peer *peer, struct raft_actions *actions);

void raft__note_size(struct raft *raft, uint64_t index, uint32_t bytes)
{
    raft->sizes[index % RAFT_SIZES_MAX] = bytes;
}

static uint32_t size_of(const struct raft *raft, uint64_t index)
{
    return raft->log.last - index < RAFT_SIZES_MAX ? raft->sizes[index % RAFT_SIZES_MAX]
                                                   : RAFT_ENTRY_BYTES_MAX;
}

/* A round of heartbeats has a number that is never used again in the term, and a time before any
 * message of it is sent. */
void raft__begin_round(struct raft *raft)
{
    raft->round++;
    raft->round_ms[raft->round % RAFT_ROUNDS_MAX] = raft->now_ms;
    for (size_t i = 0; i < raft->peers_count; i++)
        raft->peers[i].beat_due = i != raft->self;
}

void raft__probe_from(struct raft *raft, struct raft__peer *peer, uint64_t next)
{
    peer->progress = RAFT__PROBE;
    peer->next = next;
    peer->probe_sent = false;
    peer->sent_first = peer->sent_count = peer->sent_bytes = 0;
    peer->beat_due = peer != &raft->peers[raft->self];
}

void raft__send_snapshot(struct raft__peer *peer)
{
    peer->progress = RAFT__SNAPSHOT;
    peer->snapshot = 0;
    peer->chunk_sent = false;
}

void raft__forget_sent(struct raft__peer *peer, uint64_t match)
{
    while (peer->sent_count > 0 && peer->sent[peer->sent_first].last <= match) {
        peer->sent_bytes -= peer->sent[peer->sent_first].bytes;
        peer->sent_first = (peer->sent_first + 1) % RAFT_INFLIGHT_MAX;
        peer->sent_count--;
    }
}

/* How many entries the next message takes, and their bytes. */
static uint32_t batch(const struct raft *raft, const struct raft__peer *peer, uint32_t *ret_bytes)
{
    const uint32_t window = RAFT_INFLIGHT_BYTES_MAX - peer->sent_bytes;
    const uint32_t bytes_max = window < RAFT_APPEND_BYTES_MAX ? window : RAFT_APPEND_BYTES_MAX;
    uint32_t count = 0;
    uint32_t bytes = 0;

    while (count < RAFT_APPEND_ENTRIES_MAX && peer->next + count <= raft->log.last) {
        const uint32_t size = size_of(raft, peer->next + count);
        if (count > 0 && bytes + size > bytes_max)
            break;
        bytes += size;
        count++;
    }
    *ret_bytes = bytes;
    return count;
}

static bool window_is_open(const struct raft *raft, const struct raft__peer *peer)
{
    return peer->next <= raft->log.last && peer->sent_count < RAFT_INFLIGHT_MAX &&
           peer->sent_bytes + size_of(raft, peer->next) <= RAFT_INFLIGHT_BYTES_MAX;
}

/* The commit index rides on entries and heartbeats, and goes alone only when the log is idle. */
static bool is_owed_commit(const struct raft *raft, const struct raft__peer *peer)
{
    return raft->commit == raft->log.last && peer->told < raft->commit &&
           peer->match == raft->log.last;
}

static bool wants_send(const struct raft *raft, size_t at)
{
    const struct raft__peer *peer = &raft->peers[at];

    if (at == raft->self)
        return false;
    if (peer->beat_due)
        return true;
    switch (peer->progress) {
    case RAFT__PROBE:
        return !peer->probe_sent;
    case RAFT__REPLICATE:
        return window_is_open(raft, peer) || is_owed_commit(raft, peer);
    case RAFT__SNAPSHOT:
        return !peer->chunk_sent;
    }
    return false;
}

bool raft__wants_send(const struct raft *raft)
{
    if (raft__reads_want_round(raft))
        return true;
    for (size_t i = 0; i < raft->peers_count; i++)
        if (wants_send(raft, i))
            return true;
    return false;
}

/* One message to each; where a window is open for more, the caller sees that it is wanted again. */
void raft__send_due(struct raft *raft, struct raft_actions *actions)
{
    if (raft->role != RAFT_LEADER)
        return;
    if (raft__reads_want_round(raft)) {
        raft__reads_begin_round(raft);
        raft__reads_check(raft, actions);
    }
    for (size_t i = 0; i < raft->peers_count; i++) {
        struct raft__peer *peer = &raft->peers[i];
        uint32_t bytes = 0;
        uint32_t count;

        if (!wants_send(raft, i))
            continue;
        if (peer->progress != RAFT__SNAPSHOT && peer->next <= raft->log.base)
            raft__send_snapshot(peer);
        switch (peer->progress) {
        case RAFT__PROBE:
            count = batch(raft, peer, &bytes);
            send_append(raft, peer, count, bytes, actions);
            peer->probe_sent = true;
            break;
        case RAFT__REPLICATE:
            count = window_is_open(raft, peer) ? batch(raft, peer, &bytes) : 0;
            send_append(raft, peer, count, bytes, actions);
            break;
        case RAFT__SNAPSHOT:
            send_chunk(raft, peer, actions);
            break;
        }
        peer->beat_due = false;
    }
}

static void send_append(struct raft *raft, struct raft__peer *peer, uint32_t count, uint32_t bytes,
                        struct raft_actions *actions)
{
    struct raft_message *message = raft__send(raft, RAFT_MESSAGE_APPEND, peer->member.id, actions);

    message->append.prev_index = peer->next - 1;
    message->append.prev_term = raft__log_term_at(&raft->log, peer->next - 1);
    message->append.commit = raft->commit;
    message->append.round = raft->round;
    message->append.count = count;
    peer->told = raft->commit;
    if (count == 0 || peer->progress != RAFT__REPLICATE)
        return;
    assert(peer->sent_count < RAFT_INFLIGHT_MAX);
    peer->next += count;
    peer->sent[(peer->sent_first + peer->sent_count) % RAFT_INFLIGHT_MAX] =
        (struct raft__sent){peer->next - 1, bytes};
    peer->sent_count++;
    peer->sent_bytes += bytes;
}

/* One chunk at a time, from the offset that the peer wants; a lost one goes again with the next
 * heartbeat. */
static void send_chunk(struct raft *raft, struct raft__peer *peer, struct raft_actions *actions)
{
    struct raft_message *message =
        raft__send(raft, RAFT_MESSAGE_SNAPSHOT, peer->member.id, actions);

    if (peer->snapshot != raft->snapshot_index) {
        peer->snapshot = raft->snapshot_index;
        peer->offset = 0;
    }
    message->snapshot.index = raft->snapshot_index;
    message->snapshot.index_term = raft->snapshot_term;
    message->snapshot.offset = peer->offset;
    message->snapshot.round = raft->round;
    peer->chunk_sent = true;
}

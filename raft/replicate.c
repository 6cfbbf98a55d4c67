/*
 * Appending to the leader's log, and the rule by which its entries become committed (thesis 3.5 and
 * 3.6.2).
 */
#include "internal.h"

enum raft_error raft__propose(struct raft *raft, uint32_t count, struct raft_actions *actions)
{
    assert(count >= 1);

    if (raft->role != RAFT_LEADER)
        return RAFT_ERR_NOT_LEADER;
    if (raft__writes_full(raft))
        return RAFT_ERR_FULL;
    raft__append(raft, count, RAFT_ENTRY_COMMAND, actions);
    return RAFT_OK;
}

/* A leader only ever appends, with its own term (thesis 3.5, "Leader Append-Only"). */
void raft__append(struct raft *raft, uint64_t count, enum raft_entry_type type,
                  struct raft_actions *actions)
{
    uint64_t first = raft->log.last + 1;

    assert(raft->role == RAFT_LEADER);
    raft__log_append(&raft->log, count, raft->term);
    raft__persist_entries(raft, first, type, actions);
}

/* Entries are committed once a quorum has them durable, the leader's own disk being counted like
 * any other (thesis 10.2.1), and only if the newest of them is of the leader's own term; older ones
 * are committed along with it. An older entry on a quorum of disks alone can still be overwritten
 * by a later leader (thesis 3.6.2, figure 3.7). */
void raft__advance_commit(struct raft *raft, struct raft_actions *actions)
{
    uint64_t index = raft__quorum_match(raft->match, raft->voters_count);

    if (raft->role != RAFT_LEADER || index <= raft->commit)
        return;
    if (raft__log_term_at(&raft->log, index) != raft->term)
        return;
    raft__commit(raft, index, actions);
}

uint64_t raft__quorum_match(const uint64_t *match, size_t voters_count)
{
    uint64_t sorted[RAFT_VOTERS_MAX] = {0}; /* descending */

    assert(voters_count >= 1 && voters_count <= RAFT_VOTERS_MAX);
    for (size_t i = 0; i < voters_count; i++) {
        size_t at = i;
        for (; at > 0 && sorted[at - 1] < match[i]; at--)
            sorted[at] = sorted[at - 1];
        sorted[at] = match[i];
    }
    /* This one and the voters_count / 2 before it: the smallest number that is a quorum. */
    return sorted[voters_count / 2];
}

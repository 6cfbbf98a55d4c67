/*
 * Elections (thesis 3.4).
 */
#include "internal.h"

static void become_leader(struct raft *raft, struct raft_actions *actions);

/* Begins a new term as a candidate that votes for itself (thesis 3.4). Term and vote go to disk as
 * one write (thesis 3.8): were the term durable without the vote, a restart could vote again in it.
 */
enum raft_error raft__campaign(struct raft *raft, struct raft_actions *actions)
{
    /* A leader must append an entry of its term at once, so room for it is a condition of running:
     * a term that cannot have one is not begun. */
    if (raft->term == UINT64_MAX || !raft__log_has_room(&raft->log, raft->term + 1))
        return RAFT_ERR_FULL;

    raft->term++;
    raft->vote = raft->id;
    for (size_t i = 0; i < raft->voters_count; i++)
        raft->granted[i] = false;
    raft->vote_write = raft__persist_state(raft, actions);
    raft__set_role(raft, RAFT_CANDIDATE, actions);
    return RAFT_OK;
}

/* A candidate's own vote counts as any other's does: when it is durable (thesis 3.8). Before that,
 * a crash could forget it, and this server vote in the same term again. */
void raft__count_own_vote(struct raft *raft, struct raft_actions *actions)
{
    size_t votes = 0;

    if (raft->role != RAFT_CANDIDATE || raft->writes.durable < raft->vote_write)
        return;

    raft->granted[raft->self] = true;
    for (size_t i = 0; i < raft->voters_count; i++)
        votes += raft->granted[i];
    if (raft__is_quorum(votes, raft->voters_count))
        become_leader(raft, actions);
}

/* Any two quorums share a voter, and a voter votes once a term: one leader per term (thesis 3.4).
 */
bool raft__is_quorum(size_t count, size_t voters_count)
{
    return count > voters_count / 2;
}

/* The no-op lets the leader commit, in its own term, whatever earlier terms left behind (thesis
 * 6.4; 3.6.2 forbids it to commit those entries for themselves). */
static void become_leader(struct raft *raft, struct raft_actions *actions)
{
    assert(raft->vote == raft->id && raft->writes.durable >= raft->vote_write);

    raft__set_role(raft, RAFT_LEADER, actions);
    raft__append(raft, 1, RAFT_ENTRY_NOOP, actions);
}

/*
 * Reads that see all that was committed before they began (thesis 6.4): by a round of heartbeats
 * that begins after them, or by a lease that a majority's answers to an earlier round gave (thesis
 * 6.4.1, DESIGN C12). Neither before an entry of the leader's own term is committed, since it does
 * not know before what is.
 */
#include "internal.h"

static bool leases_are_good(const struct raft *raft);

enum raft_error raft__read(struct raft *raft, uint64_t id, struct raft_actions *actions)
{
    assert(id > raft->reads.last);

    if (raft->role != RAFT_LEADER)
        return RAFT_ERR_NOT_LEADER;
    raft->reads.last = id;
    /* Both readings were rounded down, so the last millisecond is not ours. */
    if (raft->reads.waiting == 0 && raft->reads.rounds_count == 0 && leases_are_good(raft) &&
        raft->now_ms + 1 < raft__lease_until_ms(raft)) {
        struct raft_action *action = raft__add_action(actions, RAFT_ACTION_READ_READY);
        action->read_ready.id = id;
        action->read_ready.index = raft->commit;
        return RAFT_OK;
    }
    raft->reads.waiting = id;
    /* A cluster of one voter asks nobody. */
    if (raft__is_only_voter(raft)) {
        raft__reads_begin_round(raft);
        raft__reads_check(raft, actions);
    }
    return RAFT_OK;
}

bool raft__reads_want_round(const struct raft *raft)
{
    return raft->role == RAFT_LEADER && raft->reads.waiting != 0 &&
           raft->reads.rounds_count < RAFT_READ_ROUNDS_MAX;
}

/* All that wait share the round; those that come later do not join it, since it may have been
 * answered before they began. */
void raft__reads_begin_round(struct raft *raft)
{
    struct raft__reads *reads = &raft->reads;

    if (reads->rounds_count == RAFT_READ_ROUNDS_MAX)
        return;
    if (!RAFT_MUTANT(REUSED_READ_CONTEXT))
        raft__begin_round(raft);
    reads->rounds[reads->rounds_count++] =
        (struct raft__read_round){.round = raft->round, .id = reads->waiting};
    reads->waiting = 0;
}

static uint64_t round_of(const struct raft *raft, size_t at)
{
    return at == raft->self ? raft->round : raft->peers[at].round;
}

void raft__reads_check(struct raft *raft, struct raft_actions *actions)
{
    struct raft__reads *reads = &raft->reads;
    size_t done = 0;

    if (reads->rounds_count == 0 || (!raft__knows_commit(raft) && !RAFT_MUTANT(READ_BEFORE_NOOP)))
        return;
    const uint64_t reached = raft__majority_reached(raft, round_of);
    while (done < reads->rounds_count && reads->rounds[done].round <= reached)
        done++;
    if (done == 0)
        return;
    struct raft_action *action = raft__add_action(actions, RAFT_ACTION_READ_READY);
    action->read_ready.id = reads->rounds[done - 1].id;
    action->read_ready.index = raft->commit;
    reads->rounds_count -= done;
    for (size_t i = 0; i < reads->rounds_count; i++)
        reads->rounds[i] = reads->rounds[i + done];
}

void raft__reads_fail(struct raft *raft, struct raft_actions *actions)
{
    struct raft__reads *reads = &raft->reads;

    if (reads->waiting != 0 || reads->rounds_count > 0)
        raft__add_action(actions, RAFT_ACTION_READ_FAILED)->read_failed.id = reads->last;
    reads->waiting = 0;
    reads->rounds_count = 0;
}

/* The go-ahead of a transfer lets its receiver be elected by voters that have just heard us. It may
 * arrive at any later time, so there is no lease for the rest of the term. */
static bool leases_are_good(const struct raft *raft)
{
    return (raft__knows_commit(raft) || RAFT_MUTANT(READ_BEFORE_NOOP)) &&
           (!raft->transfer_sent || RAFT_MUTANT(LEASE_READ_AFTER_TRANSFER));
}

/* Every voter of a majority has heard us after the round began, and votes for nobody before
 * election_ms have passed by its own clock. The lease counts from a reading that was made before
 * the round's first message left. */
uint64_t raft__lease_until_ms(const struct raft *raft)
{
    uint64_t reached;

    if (!leases_are_good(raft))
        return 0;
    if (raft__is_only_voter(raft))
        return UINT64_MAX;
    reached = raft__majority_reached(raft, round_of);
    if (reached == 0 || raft->round - reached >= RAFT_ROUNDS_MAX)
        return 0;
    return raft->round_ms[reached % RAFT_ROUNDS_MAX] + raft->lease_ms;
}

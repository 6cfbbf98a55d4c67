/* Majorities of the voters of the latest configuration (thesis 3.4, 4.1). */
#include "internal.h"

static size_t majority(const struct raft *raft)
{
    size_t voters = 0;

    for (size_t i = 0; i < raft->peers_count; i++)
        voters += raft->peers[i].member.voter;
    return voters / 2 + 1;
}

bool raft__has_majority(const struct raft *raft, bool (*has)(const struct raft *, size_t))
{
    size_t count = 0;

    for (size_t i = 0; i < raft->peers_count; i++)
        count += raft->peers[i].member.voter && has(raft, i);
    return count >= majority(raft);
}

uint64_t raft__majority_reached(const struct raft *raft,
                                uint64_t (*get)(const struct raft *, size_t))
{
    uint64_t sorted[RAFT_VOTERS_MAX] = {0}; /* descending */
    size_t count = 0;

    for (size_t i = 0; i < raft->peers_count; i++) {
        if (!raft->peers[i].member.voter)
            continue;
        assert(count < RAFT_VOTERS_MAX);
        size_t at = count++;
        const uint64_t number = get(raft, i);
        for (; at > 0 && sorted[at - 1] < number; at--)
            sorted[at] = sorted[at - 1];
        sorted[at] = number;
    }
    return count == 0 ? 0 : sorted[majority(raft) - 1];
}

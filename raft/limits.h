/* Every limit of the consensus core, in one place. */
#ifndef RAFT_LIMITS_H
#define RAFT_LIMITS_H

#include <assert.h>

enum {
    /* Voters of a configuration (DESIGN D, "Growing"). */
    RAFT_VOTERS_MAX = 7,
    /* Runs of consecutive entries of one term that the log may hold: one per leader since the last
     * snapshot. At the limit a start, or an election, is refused with RAFT_ERR_FULL. */
    RAFT_TERM_RUNS_MAX = 65536,
    /* Writes handed to the caller and not yet reported durable. At the limit RAFT_ERR_FULL. */
    RAFT_WRITES_MAX = 262144,
    /* Actions that one event can cause. */
    RAFT_ACTIONS_MAX = 8,
};

static_assert((RAFT_WRITES_MAX & (RAFT_WRITES_MAX - 1)) == 0, "the ring of writes wraps by mask");

#endif

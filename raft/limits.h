/* Every limit of the consensus core, in one place. */
#ifndef RAFT_LIMITS_H
#define RAFT_LIMITS_H

#include <assert.h>
#include <stdint.h>

/* Indexes beyond this are nobody's: no log grows so long. */
#define RAFT_INDEX_MAX (UINT64_MAX / 2)

enum {
    /* Voters of a configuration (DESIGN D, "Growing"). */
    RAFT_VOTERS_MAX = 7,
    /* Members of a configuration, learners included. At the limit RAFT_ERR_FULL. */
    RAFT_MEMBERS_MAX = 128,
    /* Changes of the configuration that the log may hold: at the limit a leader refuses more with
     * RAFT_ERR_FULL, and a follower takes no entries, until a snapshot covers some. */
    RAFT_CHANGES_MAX = 1024,
    /* Runs of consecutive entries of one term that the log may hold: one per leader since the last
     * snapshot. At the limit a start, or an election, is refused with RAFT_ERR_FULL, and a follower
     * takes no entries of another term. */
    RAFT_TERM_RUNS_MAX = 65536,
    /* Writes handed to the caller and not yet reported durable. At the limit RAFT_ERR_FULL, and
     * messages that need a write are dropped. */
    RAFT_WRITES_MAX = 262144,

    /* Bytes of one entry. */
    RAFT_ENTRY_BYTES_MAX = 16384,
    /* Entries whose sizes are known; older ones count as the largest. */
    RAFT_SIZES_MAX = 65536,
    /* What one message carries at most: entries, and bytes beyond the first entry. */
    RAFT_APPEND_ENTRIES_MAX = 512,
    RAFT_APPEND_BYTES_MAX = 256 * 1024,
    /* What a peer may have been sent and not acknowledged, beyond which it is sent nothing new. */
    RAFT_INFLIGHT_MAX = 32,
    RAFT_INFLIGHT_BYTES_MAX = 1024 * 1024,

    /* Rounds of heartbeats whose sending time is known: an answer to an older one says nothing for
     * a lease. */
    RAFT_ROUNDS_MAX = 256,
    /* Rounds on which reads wait; later reads share the next one. */
    RAFT_READ_ROUNDS_MAX = 8,
    /* A learner this close to the end of the log has caught up (thesis 4.2.1). */
    RAFT_PROMOTE_LAG_MAX = 1024,

    /* Actions that one event can cause: a message to each member, and a few. */
    RAFT_ACTIONS_MAX = RAFT_MEMBERS_MAX + 16,
};

static_assert((RAFT_WRITES_MAX & (RAFT_WRITES_MAX - 1)) == 0, "the ring of writes wraps by mask");
static_assert((RAFT_SIZES_MAX & (RAFT_SIZES_MAX - 1)) == 0, "the ring of sizes wraps by mask");
static_assert(RAFT_VOTERS_MAX <= RAFT_MEMBERS_MAX, "voters are members");
static_assert(RAFT_ENTRY_BYTES_MAX <= RAFT_APPEND_BYTES_MAX, "a message has room for any entry");
static_assert(RAFT_APPEND_BYTES_MAX <= RAFT_INFLIGHT_BYTES_MAX, "a full message can be in flight");

#endif

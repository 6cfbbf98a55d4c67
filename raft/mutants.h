/*
 * Deliberate bugs, each of which the simulator must find (make check-mutants). They exist only
 * where RAFT_MUTANTS is defined, which no build that is shipped does: elsewhere RAFT_MUTANT() is
 * the constant false.
 */
#ifndef RAFT_MUTANTS_H
#define RAFT_MUTANTS_H

/* name, what is wrong, the row of RAFT-PITFALLS or the thesis section. */
#define RAFT_MUTANT_LIST(X)                                                                        \
    X(OLD_TERM_COMMIT, "an older term's entry is committed by counting replicas (3.6.2)")          \
    X(DOUBLE_VOTE_ON_TRANSFER, "a transfer's candidate gets a vote that was given already")        \
    X(INDEX_REUSE_AFTER_FAILED_WRITE, "a leader whose write failed goes on, at the same index")    \
    X(VOTE_NOT_PERSISTED, "the vote is not on disk (3.8)")                                         \
    X(REPLY_BEFORE_FDATASYNC, "votes and entries are acknowledged before they are durable")        \
    X(REUSED_READ_CONTEXT, "a read joins a round of heartbeats that was sent before it (6.4)")     \
    X(STALE_APPEND_ACK, "an acknowledgement of an older term counts")                              \
    X(ACK_COVERS_TRUNCATED, "a write that was overtaken by a truncation counts in full")           \
    X(CHANGE_WITHOUT_GUARD, "the configuration changes while another change is uncommitted")       \
    X(SNAPSHOT_STALE_CONFIGURATION, "an installed snapshot leaves the old configuration")          \
    X(COMMIT_UNVERIFIED_SUFFIX, "a heartbeat commits entries that were not compared")              \
    X(LEASE_READ_AFTER_TRANSFER, "a leader reads by lease after the go-ahead of a transfer")       \
    X(VOTE_DESPITE_LEADER, "a voter that has just heard the leader votes (DESIGN C12)")            \
    X(READ_BEFORE_NOOP, "reads are answered before the term's no-op is committed (6.4)")

#ifdef RAFT_MUTANTS

enum raft_mutant {
    RAFT_MUTANT_NONE,
#define X(name, text) RAFT_MUTANT_##name,
    RAFT_MUTANT_LIST(X)
#undef X
};

extern enum raft_mutant raft__mutant;

#define RAFT_MUTANT(name) (raft__mutant == RAFT_MUTANT_##name)

#else

#define RAFT_MUTANT(name) false

#endif

#endif

/*
 * The consensus core of lockfs: Raft (Ongaro, "Consensus: Bridging Theory and Practice", 2014,
 * cited below as "thesis"), as a pure state machine. It does no I/O, reads no clock, allocates
 * nothing, and keeps no entry: it knows the log by index and term, and the caller keeps the bytes.
 *
 * Events go in, one at a time, through raft_step(); actions come out, in an order that matters.
 *
 * The caller's duties:
 *  1. Provide raft_size() bytes of memory to raft_init(), and keep them in place.
 *  2. Before RAFT_EVENT_START, hand over what the disk holds: the last RAFT_EVENT_RECOVERED_STATE,
 *     RAFT_EVENT_RECOVERED_SNAPSHOT where there is a snapshot, and then every entry in order of
 * index as RAFT_EVENT_RECOVERED_ENTRY. What is handed over must be durable: rewritten and synced
 * where a crash leaves that in doubt.
 *  3. Carry out the actions of a step in the order of the array, before the next step.
 *  4. Make PERSIST actions durable in their order. Report RAFT_EVENT_PERSISTED for a write only
 * when it and every earlier one survive a loss of power. Reports may be joined: one for write n
 *     covers all writes up to n.
 *  5. When a write fails, report RAFT_EVENT_PERSIST_FAILED once, and never try that write again:
 *     the core then takes part in nothing any more (a term's index must not be used twice), and the
 *     caller stops.
 *  6. Keep the bytes of an entry from its PERSIST action until it is applied, and be able to read
 *     any entry of the log again from disk.
 *  7. Apply entries in order of index, up to the index of the latest RAFT_ACTION_COMMIT, and answer
 *     a client only from what is applied.
 *  8. Never call raft_step() from within the carrying out of an action.
 *  9. A snapshot holds what the entries up to its index led to, together with that index and its
 *     term (thesis 5.1), and only of entries that are durable in this server's log. Entries may be
 *     thrown away when the snapshot that covers them is durable; RAFT_EVENT_COMPACTED says so.
 */
#ifndef RAFT_RAFT_H
#define RAFT_RAFT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "limits.h"

struct raft;

/* Errors, as returned by raft_step() and raft_init(). A step that fails causes no action and leaves
 * the state as it was. */
#define RAFT_ERRORS(X)                                                                             \
    X(RAFT_OK, 0, "no error")                                                                      \
    X(RAFT_ERR_CONFIG, 1, "the configuration is not one that this core can run")                   \
    X(RAFT_ERR_NOT_LEADER, 2, "this server is not the leader")                                     \
    X(RAFT_ERR_FULL, 3, "a limit of the core is reached")                                          \
    X(RAFT_ERR_FAILED, 4, "a write of this server failed, it takes part in nothing any more")      \
    X(RAFT_ERR_LOG, 5, "what was recovered from disk is not a log")

enum raft_error {
#define X(name, value, text) name = (value),
    RAFT_ERRORS(X)
#undef X
};

/* A static text for an error, for messages. */
const char *raft_error_text(enum raft_error error);

struct raft_config {
    uint64_t id; /* this server, not 0 */
    const uint64_t *voters;
    size_t voters_count; /* 1 for now: a cluster of one, whose only voter is `id` */
};

enum raft_role {
    RAFT_FOLLOWER, /* also every server before RAFT_EVENT_START */
    RAFT_CANDIDATE,
    RAFT_LEADER,
    RAFT_FAILED, /* after RAFT_EVENT_PERSIST_FAILED */
};

enum raft_entry_type {
    RAFT_ENTRY_NOOP = 1,    /* the first entry of a leader's term (thesis 6.4) */
    RAFT_ENTRY_COMMAND = 2, /* the caller's */
};

enum raft_event_type {
    /* Term and vote as they were persisted last (thesis 3.8). Only before START. */
    RAFT_EVENT_RECOVERED_STATE,
    /* The snapshot: what its entries led to is applied. Only before START and before any entry. */
    RAFT_EVENT_RECOVERED_SNAPSHOT,
    /* One entry of the log. Only before START, in order of index, without gaps. Behind a snapshot
     * the first one's index is at most the snapshot's plus 1; those that the snapshot covers are
     * checked against it, and that is all. */
    RAFT_EVENT_RECOVERED_ENTRY,
    /* Recovery is over: take part. A cluster of one elects itself. */
    RAFT_EVENT_START,
    /* Append `count` commands of the caller's to the log. Only a leader takes them. */
    RAFT_EVENT_PROPOSE,
    /* Every PERSIST action up to `write` is durable. */
    RAFT_EVENT_PERSISTED,
    /* A PERSIST action could not be made durable. */
    RAFT_EVENT_PERSIST_FAILED,
    /* A snapshot up to `index` is durable, and entries up to there may be gone. Only after START;
     * not beyond what is committed and durable here. One that says nothing new is void. */
    RAFT_EVENT_COMPACTED,
};

struct raft_event {
    enum raft_event_type type;
    union {
        struct {
            uint64_t term;
            uint64_t vote; /* 0: nobody */
        } recovered_state;
        struct {
            uint64_t index; /* of the last entry that it covers */
            uint64_t term;  /* of that entry */
        } recovered_snapshot;
        struct {
            uint64_t index;
            uint64_t term;
        } recovered_entry;
        struct {
            uint32_t count; /* at least 1 */
        } propose;
        struct {
            uint64_t write;
        } persisted;
        struct {
            uint64_t index;
        } compacted;
    };
};

enum raft_action_type {
    /* Make term and vote durable, as one write: never the one without the other. */
    RAFT_ACTION_PERSIST_STATE,
    /* Make the entries `first` to `last` durable; what the disk holds from `first` on is replaced.
     */
    RAFT_ACTION_PERSIST_ENTRIES,
    /* Entries up to `index` are committed (thesis 3.6.2): they may be applied. */
    RAFT_ACTION_COMMIT,
    /* The role has changed. */
    RAFT_ACTION_ROLE,
};

struct raft_action {
    enum raft_action_type type;
    union {
        struct {
            uint64_t write; /* writes are numbered from 1, without gaps, per raft_init() */
            uint64_t term;
            uint64_t vote;
        } persist_state;
        struct {
            uint64_t write;
            uint64_t first;
            uint64_t last;
            uint64_t term;
            enum raft_entry_type entry_type;
        } persist_entries;
        struct {
            uint64_t index;
        } commit;
        struct {
            enum raft_role role;
            uint64_t term;
        } role;
    };
};

struct raft_actions {
    size_t count;
    struct raft_action items[RAFT_ACTIONS_MAX];
};

/* The bytes that a core needs; they are the caller's, and a multiple of 16. */
size_t raft_size(void);

/* Makes a core in `memory` (16-byte aligned, raft_size() bytes). RAFT_ERR_CONFIG where the
 * configuration is not one voter named `id`. On error `ret_raft` is left as it was. */
enum raft_error raft_init(void *memory, const struct raft_config *config, struct raft **ret_raft);

/* The one entry point. `actions` is overwritten; it is empty on error. */
enum raft_error raft_step(struct raft *raft, const struct raft_event *event,
                          struct raft_actions *actions);

/* Looks, for status and for tests. */
enum raft_role raft_get_role(const struct raft *raft);
uint64_t raft_get_term(const struct raft *raft);
uint64_t raft_get_commit(const struct raft *raft);
uint64_t raft_get_last_index(const struct raft *raft);
/* The term of an entry of the log, or of the last one that a snapshot covers; 0 where there is no
 * such entry (any more). */
uint64_t raft_get_term_at(const struct raft *raft, uint64_t index);

#endif

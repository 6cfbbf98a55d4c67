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
 *     index as RAFT_EVENT_RECOVERED_ENTRY. What is handed over must be durable: rewritten and
 *     synced where a crash leaves that in doubt.
 *  3. Carry out the actions of a step in the order of the array, before the next step.
 *  4. Make PERSIST actions durable in their order. Report RAFT_EVENT_PERSISTED for a write only
 *     when it and every earlier one survive a loss of power. Reports may be joined: one for write n
 *     covers all writes up to n.
 *  5. When a write fails, report RAFT_EVENT_PERSIST_FAILED once, and never try that write again:
 *     the core then takes part in nothing any more (a term's index must not be used twice), and the
 *     caller stops.
 *  6. Keep the bytes of an entry from its PERSIST action until it is applied and durable, and be
 *     able to read any entry of the log again from disk.
 *  7. Apply entries in order of index, up to the index of the latest RAFT_ACTION_COMMIT, and answer
 *     a client only from what is applied.
 *  8. Never call raft_step() from within the carrying out of an action.
 *  9. A snapshot holds what the entries up to its index led to, together with that index, its term
 *     and the members at that index (raft_get_members_at(); thesis 5.1), and only of entries that
 *     are durable in this server's log. Entries may be thrown away when a snapshot that covers them
 *     is durable; RAFT_EVENT_COMPACTED says so.
 * 10. Every event carries the time, in milliseconds of a clock that runs during suspend, read after
 *     what caused the event: one reading for several arrivals must be made after the last of them.
 *     A SEND action goes out after that reading by itself. Give RAFT_EVENT_TICK at or after
 *     raft_get_deadline_ms().
 * 11. After a turn of events, and while raft_wants_turn_end(), give RAFT_EVENT_TURN_END: entries
 *     and heartbeats leave then, so that what one turn brought goes in one message to each peer.
 * 12. Deliver messages whole and unchanged, or not at all. They may be lost, repeated, delayed and
 *     reordered.
 * 13. An id stands for one disk: a server that has lost what was durable there comes back under a
 * new one. Under its old id it would vote a second time in a term, and, sent a snapshot from before
 *     it was removed, might take itself for the only voter.
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
    X(RAFT_ERR_LOG, 5, "what was recovered from disk is not a log")                                \
    X(RAFT_ERR_BUSY, 6, "another change or transfer is under way, or the term has just begun")     \
    X(RAFT_ERR_BEHIND, 7, "the learner's log is too far behind")                                   \
    X(RAFT_ERR_MEMBER, 8, "no such member, or it is that already")                                 \
    X(RAFT_ERR_SNAPSHOT, 9, "a server can join only where there is a snapshot")

enum raft_error {
#define X(name, value, text) name = (value),
    RAFT_ERRORS(X)
#undef X
};

/* A static text for an error, for messages. */
const char *raft_error_text(enum raft_error error);

/* A server of the configuration. A learner gets the log and votes for nothing (thesis 4.2.1). */
struct raft_member {
    uint64_t id; /* not 0 */
    bool voter;
};

struct raft_config {
    uint64_t id; /* this server, not 0 */
    /* The configuration before the first entry: the same on every server that begins the cluster,
     * none on one that joins later. A snapshot replaces it. */
    const struct raft_member *members;
    size_t members_count;
    uint32_t election_ms;  /* without a leader for so long, up to double: a server campaigns */
    uint32_t heartbeat_ms; /* less than half of election_ms */
    /* The rates of two servers' clocks have a ratio of at most 1 + this / 1000 (DESIGN B1). */
    uint32_t max_drift_permille;
    uint64_t seed; /* of the random election timeouts; differs between servers */
};

enum raft_role {
    RAFT_FOLLOWER,      /* also a learner, and every server before RAFT_EVENT_START */
    RAFT_PRE_CANDIDATE, /* asks whether it would be elected (thesis 9.6) */
    RAFT_CANDIDATE,
    RAFT_LEADER,
    RAFT_FAILED, /* after RAFT_EVENT_PERSIST_FAILED */
};

enum raft_entry_type {
    RAFT_ENTRY_NOOP = 1,    /* the first entry of a leader's term (thesis 6.4) */
    RAFT_ENTRY_COMMAND = 2, /* the caller's */
    RAFT_ENTRY_CHANGE = 3,  /* of the configuration, in force from its append on (thesis 4.1) */
};

/* A change of one member; at most one voter more or less (thesis 4.1). */
enum raft_change_type {
    RAFT_CHANGE_ADD_LEARNER = 1,
    RAFT_CHANGE_PROMOTE, /* a learner that has caught up becomes a voter (thesis 4.2.1) */
    RAFT_CHANGE_DEMOTE,  /* a voter becomes a learner */
    RAFT_CHANGE_REMOVE,
};

struct raft_change {
    enum raft_change_type type;
    uint64_t id;
};

/* What the core must know of an entry. */
struct raft_entry {
    uint64_t term;
    enum raft_entry_type type;
    uint32_t bytes;            /* of the caller's data, at most RAFT_ENTRY_BYTES_MAX */
    struct raft_change change; /* of RAFT_ENTRY_CHANGE */
};

enum raft_message_type {
    RAFT_MESSAGE_PRE_VOTE = 1,
    RAFT_MESSAGE_PRE_VOTE_REPLY,
    RAFT_MESSAGE_VOTE,
    RAFT_MESSAGE_VOTE_REPLY,
    RAFT_MESSAGE_APPEND, /* also the heartbeat */
    RAFT_MESSAGE_APPEND_REPLY,
    RAFT_MESSAGE_SNAPSHOT, /* a chunk of one */
    RAFT_MESSAGE_SNAPSHOT_REPLY,
    RAFT_MESSAGE_TIMEOUT_NOW, /* the go-ahead of a transfer (thesis 3.10) */
};

struct raft_message {
    enum raft_message_type type;
    uint64_t from;
    uint64_t to;
    uint64_t term; /* the sender's */
    union {
        /* PRE_VOTE and VOTE, and what the sender's log ends with (thesis 3.6.1). */
        struct {
            uint64_t campaign_term; /* the term to be led: `term`, or for PRE_VOTE the next one */
            uint64_t last_index;
            uint64_t last_term;
            bool transfer; /* the leader wishes it: its contacts do not count (thesis 3.10) */
        } vote;
        /* PRE_VOTE_REPLY and VOTE_REPLY. */
        struct {
            uint64_t campaign_term;
            bool granted;
        } vote_reply;
        /* `count` entries behind prev_index follow; the caller adds and takes their bytes. */
        struct {
            uint64_t prev_index;
            uint64_t prev_term;
            uint64_t commit;
            uint64_t round; /* of heartbeats, numbered in the term, never used again */
            uint32_t count;
        } append;
        struct {
            uint64_t round; /* the append's */
            /* Up to here the log is the leader's, and durable. */
            uint64_t match;
            /* The entry before the append's is missing here, or is another one. Then the leader
             * should try at hint_index at most, where hint_term stands. */
            bool rejected;
            bool wants_snapshot;     /* whatever the append says: there is no configuration here */
            uint64_t rejected_index; /* the append's prev_index */
            uint64_t hint_index;
            uint64_t hint_term;
        } append_reply;
        /* The bytes from `offset` on of the snapshot up to `index`; the caller adds the bytes, and
         * sets `bytes` and `done`. */
        struct {
            uint64_t index;
            uint64_t index_term; /* of that entry */
            uint64_t offset;
            uint32_t bytes;
            bool done; /* these are the last ones */
            uint64_t round;
        } snapshot;
        struct {
            uint64_t index;
            uint64_t offset; /* wanted next */
            uint64_t round;
        } snapshot_reply;
    };
};

enum raft_event_type {
    /* Term and vote as they were persisted last (thesis 3.8). Only before START. */
    RAFT_EVENT_RECOVERED_STATE,
    /* The snapshot: what its entries led to is applied. Only before START and before any entry. */
    RAFT_EVENT_RECOVERED_SNAPSHOT,
    /* One entry of the log. Only before START, in order of index, without gaps. Behind a snapshot
     * of its own making a server's first entry has at most the snapshot's index plus 1, and those
     * that the snapshot covers are checked against it. A snapshot that came from a leader may lie
     * beyond the log or contradict it: then the log is void, and START says so (PERSIST_RESET). */
    RAFT_EVENT_RECOVERED_ENTRY,
    /* Recovery is over: take part. The only voter elects itself. */
    RAFT_EVENT_START,
    /* Time has passed. */
    RAFT_EVENT_TICK,
    /* The turn's events are over: send what is due. */
    RAFT_EVENT_TURN_END,
    /* A message has arrived; an APPEND with its entries. */
    RAFT_EVENT_MESSAGE,
    /* Append `count` commands of the caller's to the log. Only a leader takes them. */
    RAFT_EVENT_PROPOSE,
    /* Change the configuration. Only a leader takes it, one at a time, and not before an entry of
     * its own term is committed (thesis 4.1, and the correction of 2015): RAFT_ERR_BUSY. */
    RAFT_EVENT_CHANGE,
    /* Hand leadership to another voter (thesis 3.10); given up after election_ms. */
    RAFT_EVENT_TRANSFER,
    /* A read of what is committed by now. `id` grows from one to the next. Only a leader. */
    RAFT_EVENT_READ,
    /* Every PERSIST action up to `write` is durable. */
    RAFT_EVENT_PERSISTED,
    /* A PERSIST action could not be made durable. */
    RAFT_EVENT_PERSIST_FAILED,
    /* A snapshot up to `index` is durable, and entries up to `log_base`, at most `index`, may be
     * gone. Only after START; not beyond what is committed and durable here. One that says nothing
     * new is void. */
    RAFT_EVENT_COMPACTED,
    /* The snapshot that SNAPSHOT_CHUNK actions brought is whole and durable, in place of any that
     * covers less; or it is no good. One that covers no more than a snapshot of the caller's own,
     * made meanwhile, is no good: the log behind that may be gone. */
    RAFT_EVENT_SNAPSHOT_DURABLE,
    RAFT_EVENT_SNAPSHOT_REFUSED,
};

struct raft_event {
    enum raft_event_type type;
    uint64_t now_ms;
    union {
        struct {
            uint64_t term;
            uint64_t vote; /* 0: nobody */
        } recovered_state;
        struct {
            uint64_t index; /* of the last entry that it covers */
            uint64_t term;  /* of that entry */
            const struct raft_member *members;
            size_t members_count;
        } recovered_snapshot, snapshot_durable;
        struct {
            uint64_t index;
            struct raft_entry entry;
        } recovered_entry;
        struct {
            const struct raft_message *message;
            const struct raft_entry *entries; /* of an APPEND */
        } message;
        struct {
            uint32_t count; /* at least 1 */
            uint32_t bytes; /* of the largest of them */
        } propose;
        struct raft_change change;
        struct {
            uint64_t to;
        } transfer;
        struct {
            uint64_t id;
        } read;
        struct {
            uint64_t write;
        } persisted;
        struct {
            uint64_t index;
            uint64_t log_base;
        } compacted;
    };
};

enum raft_action_type {
    /* Make term and vote durable, as one write: never the one without the other. */
    RAFT_ACTION_PERSIST_STATE,
    /* Make the entries `first` to `last` durable; what the disk holds from `first` on is replaced.
     * In a step of an APPEND they are its last ones; else they are what was proposed, or what
     * `entry` says. */
    RAFT_ACTION_PERSIST_ENTRIES,
    /* Make durable that the log is empty and begins behind `index`, which a snapshot covers. */
    RAFT_ACTION_PERSIST_RESET,
    /* Send a message; to an APPEND add its entries, to a SNAPSHOT its bytes. */
    RAFT_ACTION_SEND,
    /* Entries up to `index` are committed (thesis 3.6.2): they may be applied. */
    RAFT_ACTION_COMMIT,
    /* The role has changed. */
    RAFT_ACTION_ROLE,
    /* Write the bytes of this step's SNAPSHOT message at its offset (0: of a new file). With the
     * last ones, check the file, make it durable, and report. */
    RAFT_ACTION_SNAPSHOT_CHUNK,
    /* The state is now what the snapshot that was reported durable says, with all up to `index`
     * applied. */
    RAFT_ACTION_RESTORE,
    /* Reads up to `id` may be answered once `index` is applied (thesis 6.4). */
    RAFT_ACTION_READ_READY,
    /* Reads up to `id` have no answer: this server leads no more. */
    RAFT_ACTION_READ_FAILED,
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
            struct raft_entry entry; /* of a leader's: all are like it */
        } persist_entries;
        struct {
            uint64_t write;
            uint64_t index;
            uint64_t term;
        } persist_reset;
        struct raft_message send;
        struct {
            uint64_t index;
        } commit;
        struct {
            enum raft_role role;
            uint64_t term;
        } role;
        struct {
            uint64_t index;
            uint64_t term;
            uint64_t offset;
            bool done;
        } snapshot_chunk;
        struct {
            uint64_t index;
            uint64_t term;
        } restore;
        struct {
            uint64_t id;
            uint64_t index;
        } read_ready;
        struct {
            uint64_t id;
        } read_failed;
    };
};

struct raft_actions {
    size_t count;
    struct raft_action items[RAFT_ACTIONS_MAX];
};

/* The bytes that a core needs; they are the caller's, and a multiple of 16. */
size_t raft_size(void);

/* Makes a core in `memory` (16-byte aligned, raft_size() bytes). RAFT_ERR_CONFIG where the
 * configuration cannot be run. On error `ret_raft` is left as it was. */
enum raft_error raft_init(void *memory, const struct raft_config *config, struct raft **ret_raft);

/* The one entry point. `actions` is overwritten; it is empty on error. */
enum raft_error raft_step(struct raft *raft, const struct raft_event *event,
                          struct raft_actions *actions);

/* When RAFT_EVENT_TICK is due; UINT64_MAX: never. */
uint64_t raft_get_deadline_ms(const struct raft *raft);
/* Whether RAFT_EVENT_TURN_END would send something. */
bool raft_wants_turn_end(const struct raft *raft);

/* Whether a server that joins waits for the first snapshot of this leader. */
bool raft_wants_snapshot(const struct raft *raft);

/* Whether a server that answers is being sent this leader's snapshot. A later one made now would
 * begin anew for it, and one after the other would never be whole there: wait, while the log has
 * room. */
bool raft_is_sending_snapshot(const struct raft *raft);

/* Looks, for status and for tests. */
enum raft_role raft_get_role(const struct raft *raft);
uint64_t raft_get_term(const struct raft *raft);
/* The leader of the term as far as this server knows; 0: none. */
uint64_t raft_get_leader(const struct raft *raft);
uint64_t raft_get_commit(const struct raft *raft);
uint64_t raft_get_last_index(const struct raft *raft);
/* The last entry that is durable in this server's log. */
uint64_t raft_get_durable(const struct raft *raft);
/* Entries up to here are gone. */
uint64_t raft_get_log_base(const struct raft *raft);
/* The term of an entry of the log, or of the last one that is gone; 0 where there is no such entry
 * (any more). */
uint64_t raft_get_term_at(const struct raft *raft, uint64_t index);
/* The configuration as of an entry, from the log's base to its end; at most RAFT_MEMBERS_MAX.
 * Returns their number. */
size_t raft_get_members_at(const struct raft *raft, uint64_t index,
                           struct raft_member *ret_members);
/* Up to when a leader reads by lease (DESIGN C12); 0: it does not. */
uint64_t raft_get_lease_ms(const struct raft *raft);

#endif

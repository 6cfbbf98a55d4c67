/*
 * What the files of the core share: its state, and the functions that cross files. Nothing here is
 * for anybody outside raft/ and its tests.
 *
 *     raft.c         the entry point, recovery, actions and outstanding writes
 *     election.c     campaigns, votes, roles (thesis 3.4, 9.6)
 *     follower.c     what a leader says: appends, heartbeats, chunks of snapshots (thesis 3.5, 5)
 *     leader.c       appending, acknowledgements, and the commit rule (thesis 3.5, 3.6.2)
 *     replicate.c    what a leader sends, and how much of it (thesis 10.2.1)
 *     read_index.c   reads, by a round of heartbeats or by lease (thesis 6.4)
 *     membership.c   changes of the configuration (thesis 4)
 *     transfer.c     handing leadership over (thesis 3.10)
 *     log.c          which entry has which term
 *     quorum.c       majorities
 */
#ifndef RAFT_INTERNAL_H
#define RAFT_INTERNAL_H

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "mutants.h"
#include "raft.h"

#ifdef NDEBUG
#error "a core without its assertions could break its promises silently: build without NDEBUG"
#endif

/* Consecutive entries of one term, from `first` up to the next run or the end of the log. */
struct raft__run {
    uint64_t first;
    uint64_t term;
};

/* Entries up to `base` are gone and known no more, but for the term of that one. Indexes begin with
 * 1, so `last` minus `base` is the number of entries. */
struct raft__log {
    uint64_t base;
    uint64_t base_term;
    uint64_t last;
    size_t runs_count;
    struct raft__run runs[RAFT_TERM_RUNS_MAX]; /* `first` and `term` both strictly increase */
};

/* PERSIST actions, numbered from 1. Those after `durable` are outstanding. */
struct raft__writes {
    uint64_t issued;
    uint64_t durable;
    /* For an outstanding write, the last entry that is durable once it is; by number, wrapped. */
    uint64_t covers[RAFT_WRITES_MAX];
};

enum raft__progress {
    RAFT__PROBE,     /* where its log and ours agree is unknown: one message, one answer */
    RAFT__REPLICATE, /* `next` runs ahead of the acknowledgements */
    RAFT__SNAPSHOT,  /* it needs entries that are gone */
};

/* A message with entries that was not acknowledged. */
struct raft__sent {
    uint64_t last;
    uint32_t bytes;
};

/* A member of the latest configuration, ourselves included. */
struct raft__peer {
    struct raft_member member;
    bool granted; /* this campaign's pre-vote or vote */

    /* The rest is a leader's, and of its term. */
    enum raft__progress progress;
    bool beat_due;       /* something is to be sent, be it empty */
    bool probe_sent;     /* PROBE: without an answer or a heartbeat since */
    bool chunk_sent;     /* SNAPSHOT: likewise */
    bool wants_snapshot; /* it has no configuration */
    uint64_t match;      /* the last entry known to be the same there, and durable */
    uint64_t next;       /* the first entry to be sent */
    uint64_t heard_ms;   /* its last answer */
    uint64_t round;      /* the latest round of heartbeats that it answered */
    uint64_t told;       /* the commit index that it was sent last */
    uint64_t snapshot;   /* SNAPSHOT: of this index ... */
    uint64_t offset;     /* ... this is wanted next */
    uint32_t sent_first; /* position in `sent` */
    uint32_t sent_count;
    uint32_t sent_bytes;
    struct raft__sent sent[RAFT_INFLIGHT_MAX];
};

struct raft__change {
    uint64_t index;
    struct raft_change change;
};

/* The configuration as the log has it. */
struct raft__members {
    size_t base_count;
    struct raft_member base[RAFT_MEMBERS_MAX]; /* as of the log's base */
    size_t changes_count;
    struct raft__change changes[RAFT_CHANGES_MAX]; /* of the log, by index */
};

/* Chunks of a snapshot that are coming in. */
struct raft__incoming {
    uint64_t from; /* 0: none */
    uint64_t term; /* of the leader that sends it */
    uint64_t index;
    uint64_t index_term;
    uint64_t offset; /* wanted next */
    bool whole;      /* the caller makes it durable */
};

struct raft__read_round {
    uint64_t round;
    uint64_t id; /* reads up to this one wait for it */
};

struct raft__reads {
    uint64_t last;    /* the latest read */
    uint64_t waiting; /* reads up to this one wait for a round to begin; 0: none */
    size_t rounds_count;
    struct raft__read_round rounds[RAFT_READ_ROUNDS_MAX];
};

struct raft {
    uint64_t id;
    uint32_t election_ms;
    uint32_t heartbeat_ms;
    uint32_t lease_ms; /* election_ms, shortened by the drift of clocks (DESIGN C12) */
    uint64_t random;

    uint64_t now_ms; /* of the event under way */

    /* Persisted together (thesis 3.8). */
    uint64_t term;
    uint64_t vote;
    uint64_t state_write; /* the latest write of them: nothing leaves before it is durable */

    /* The last entry handed over in recovery, covered by the snapshot or not. 0: none yet. */
    uint64_t recovered_index;
    uint64_t recovered_term;

    enum raft_role role;
    bool recovered_void; /* the log on disk contradicts the snapshot */
    bool started;
    bool state_changed;        /* term and vote are not even on their way to the disk */
    bool campaign_is_transfer; /* a candidate's */
    bool votes_asked;          /* likewise */
    bool owes_reply;           /* a follower's: an append's answer waits for the disk */
    bool transfer_sent;        /* a leader's: after the go-ahead no lease is worth anything */
    uint64_t leader;           /* of the term; 0: not known */
    uint64_t commit;
    uint64_t durable; /* the last entry of our log that is durable here */
    uint64_t snapshot_index;
    uint64_t snapshot_term;

    uint64_t heard_ms; /* the leader, or our start */
    uint64_t election_deadline_ms;

    /* A follower's, and of the term. */
    uint64_t verified;      /* up to here our log is the leader's */
    uint64_t leader_commit; /* the largest that the leader has told */
    uint64_t acknowledged;  /* the match that the leader was told last */
    uint64_t owed_round;
    uint64_t owed_vote; /* whom our vote is to be told; 0: nobody */
    struct raft__incoming incoming;

    /* A leader's, and of its term. */
    uint64_t noop; /* its first entry */
    uint64_t round;
    uint64_t heartbeat_deadline_ms;
    uint64_t transfer_to; /* 0: no transfer under way */
    uint64_t transfer_deadline_ms;
    struct raft__reads reads;

    size_t peers_count;
    size_t self; /* our position in `peers`, or peers_count */
    struct raft__peer peers[RAFT_MEMBERS_MAX];

    /* Those that are large stand last: raft_init() touches their beginnings only, so that their
     * pages are not resident before they are used. */
    uint64_t round_ms[RAFT_ROUNDS_MAX]; /* when a round began; by number, wrapped */
    struct raft__members members;
    struct raft__log log;
    struct raft__writes writes;
    uint32_t sizes[RAFT_SIZES_MAX]; /* of entries, by index, wrapped */
};

/* raft.c */
struct raft_action *raft__add_action(struct raft_actions *actions, enum raft_action_type type);
/* A message of this server, to be filled in further. */
struct raft_message *raft__send(struct raft *raft, enum raft_message_type type, uint64_t to,
                                struct raft_actions *actions);
bool raft__writes_full(const struct raft *raft);
/* Whether all that this server might say would rest on a durable term and vote (thesis 3.8). */
bool raft__may_speak(const struct raft *raft);
/* Sends term and vote to the disk where they have changed. */
void raft__persist_state(struct raft *raft, struct raft_actions *actions);
void raft__persist_entries(struct raft *raft, uint64_t first, const struct raft_entry *entry,
                           struct raft_actions *actions);
void raft__persist_reset(struct raft *raft, struct raft_actions *actions);
void raft__commit(struct raft *raft, uint64_t index, struct raft_actions *actions);
/* Cuts the log, and what was known of it, behind entry `last`. */
void raft__truncate(struct raft *raft, uint64_t last);
uint64_t raft__random(struct raft *raft, uint64_t below);

/* election.c */
void raft__set_role(struct raft *raft, enum raft_role role, struct raft_actions *actions);
/* Follows in `term`, which is ours or a later one; a later one is yet to be persisted. */
void raft__follow(struct raft *raft, uint64_t term, struct raft_actions *actions);
void raft__reset_election_timer(struct raft *raft);
enum raft_error raft__campaign(struct raft *raft, bool transfer, struct raft_actions *actions);
void raft__election_timeout(struct raft *raft, struct raft_actions *actions);
/* Whether contact with a leader forbids to vote for another (thesis 4.2.3, DESIGN C12). */
bool raft__hears_leader(const struct raft *raft);
void raft__on_pre_vote(struct raft *raft, const struct raft_message *message,
                       struct raft_actions *actions);
void raft__on_vote(struct raft *raft, const struct raft_message *message,
                   struct raft_actions *actions);
void raft__on_vote_reply(struct raft *raft, const struct raft_message *message,
                         struct raft_actions *actions);
/* Our own vote, or that of another, has become durable. */
void raft__votes_durable(struct raft *raft, struct raft_actions *actions);

/* follower.c */
void raft__on_append(struct raft *raft, const struct raft_message *message,
                     const struct raft_entry *entries, struct raft_actions *actions);
void raft__on_snapshot(struct raft *raft, const struct raft_message *message,
                       struct raft_actions *actions);
void raft__snapshot_durable(struct raft *raft, const struct raft_event *event,
                            struct raft_actions *actions);
void raft__refuse_old_leader(struct raft *raft, const struct raft_message *message,
                             struct raft_actions *actions);
/* More of the log has become durable. */
void raft__follower_durable(struct raft *raft, struct raft_actions *actions);

/* leader.c */
void raft__lead(struct raft *raft, struct raft_actions *actions);
void raft__append(struct raft *raft, uint64_t count, const struct raft_entry *entry,
                  struct raft_actions *actions);
enum raft_error raft__propose(struct raft *raft, uint32_t count, uint32_t bytes,
                              struct raft_actions *actions);
void raft__on_append_reply(struct raft *raft, const struct raft_message *message,
                           struct raft_actions *actions);
void raft__on_snapshot_reply(struct raft *raft, const struct raft_message *message,
                             struct raft_actions *actions);
void raft__advance_commit(struct raft *raft, struct raft_actions *actions);
void raft__leader_tick(struct raft *raft, struct raft_actions *actions);
/* An entry of the leader's own term is committed: it knows what is (thesis 6.4). */
bool raft__knows_commit(const struct raft *raft);

/* replicate.c */
void raft__begin_round(struct raft *raft);
bool raft__wants_send(const struct raft *raft);
void raft__send_due(struct raft *raft, struct raft_actions *actions);
void raft__probe_from(struct raft *raft, struct raft__peer *peer, uint64_t next);
/* What the peer needs is in no entry: it gets the latest snapshot. */
void raft__send_snapshot(struct raft__peer *peer);
void raft__forget_sent(struct raft__peer *peer, uint64_t match);
void raft__note_size(struct raft *raft, uint64_t index, uint32_t bytes);

/* read_index.c */
enum raft_error raft__read(struct raft *raft, uint64_t id, struct raft_actions *actions);
bool raft__reads_want_round(const struct raft *raft);
void raft__reads_begin_round(struct raft *raft);
void raft__reads_check(struct raft *raft, struct raft_actions *actions);
void raft__reads_fail(struct raft *raft, struct raft_actions *actions);
uint64_t raft__lease_until_ms(const struct raft *raft);

/* membership.c */
enum raft_error raft__change(struct raft *raft, const struct raft_change *change,
                             struct raft_actions *actions);
bool raft__members_are_sound(const struct raft_member *members, size_t count);
/* The configuration before the first entry of the log. */
void raft__members_begin(struct raft *raft, const struct raft_member *members, size_t count);
/* The base is another one; changes in the log stay. */
void raft__members_rebase(struct raft *raft, const struct raft_member *members, size_t count);
bool raft__members_have_room(const struct raft *raft, size_t changes);
void raft__members_append(struct raft *raft, uint64_t index, const struct raft_change *change);
void raft__members_truncate(struct raft *raft, uint64_t last);
void raft__members_compact(struct raft *raft, uint64_t base);
struct raft__peer *raft__peer(struct raft *raft, uint64_t id);
bool raft__is_voter(const struct raft *raft);
/* A voter of the latest configuration or, until it is known to be committed, of the one before
 * (thesis 4.2.2). */
bool raft__may_campaign(const struct raft *raft);
bool raft__is_only_voter(const struct raft *raft);
/* The only member: there is nobody to send anything to. */
bool raft__is_alone(const struct raft *raft);
bool raft__change_is_pending(const struct raft *raft);

/* transfer.c */
enum raft_error raft__transfer(struct raft *raft, uint64_t to);
void raft__transfer_check(struct raft *raft, struct raft_actions *actions);
void raft__on_timeout_now(struct raft *raft, const struct raft_message *message,
                          struct raft_actions *actions);

/* log.c */
void raft__log_init(struct raft__log *log);
/* Whether an entry of `term` would find a run, or room for one. */
bool raft__log_has_room(const struct raft__log *log, uint64_t term);
/* There must be room, and `term` must not be below the last one. */
void raft__log_append(struct raft__log *log, uint64_t count, uint64_t term);
uint64_t raft__log_last_term(const struct raft__log *log);
/* The log begins behind entry `index` of `term`, and is empty. */
void raft__log_begin_behind(struct raft__log *log, uint64_t index, uint64_t term);
/* Forgets the entries up to `index`, which is one of the log. */
void raft__log_compact(struct raft__log *log, uint64_t index);
/* Forgets the entries behind `last`, which is one of the log or its base. */
void raft__log_truncate(struct raft__log *log, uint64_t last);
/* 0 where there is no such entry. */
uint64_t raft__log_term_at(const struct raft__log *log, uint64_t index);
/* The last entry at or before `index` whose term is at most `term`; the base where there is none.
 */
uint64_t raft__log_find(const struct raft__log *log, uint64_t index, uint64_t term);

/* quorum.c: of the voters of the latest configuration. */
/* Any two majorities share a voter (thesis 3.4). */
bool raft__has_majority(const struct raft *raft, bool (*has)(const struct raft *, size_t));
/* The largest number that a majority has reached. */
uint64_t raft__majority_reached(const struct raft *raft,
                                uint64_t (*get)(const struct raft *, size_t));

#endif

/*
 * What the files of the core share: its state, and the functions that cross files. Nothing here is
 * for anybody outside raft/ and its tests.
 *
 *     raft.c       the entry point, recovery, actions and outstanding writes
 *     election.c   becoming candidate and leader
 *     replicate.c  appending, and the commit rule
 *     log.c        which entry has which term
 */
#ifndef RAFT_INTERNAL_H
#define RAFT_INTERNAL_H

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "raft.h"

#ifdef NDEBUG
#error "a core without its assertions could break its promises silently: build without NDEBUG"
#endif

/* Consecutive entries of one term, from `first` up to the next run or the end of the log. */
struct raft__run {
    uint64_t first;
    uint64_t term;
};

/* Entries up to `base` are covered by a snapshot and known no more, but for the term of that one.
 * Indexes begin with 1, so `last` minus `base` is the number of entries. */
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

struct raft {
    uint64_t id;
    size_t voters_count;
    size_t self; /* the position of `id` in `voters` */
    uint64_t voters[RAFT_VOTERS_MAX];

    /* Persisted together (thesis 3.8). */
    uint64_t term;
    uint64_t vote;

    /* The last entry handed over in recovery, covered by the snapshot or not. 0: none yet. */
    uint64_t recovered_index;
    uint64_t recovered_term;

    bool started;
    enum raft_role role;
    uint64_t commit;

    /* The write that makes our vote in `term` durable; only then it counts. */
    uint64_t vote_write;
    bool granted[RAFT_VOTERS_MAX]; /* the votes that count, by position */

    /* The last entry known to be durable, by position; our own is kept in every role. */
    uint64_t match[RAFT_VOTERS_MAX];

    /* The two that are large stand last: raft_init() touches their beginnings only, so that their
     * pages are not resident before they are used. */
    struct raft__log log;
    struct raft__writes writes;
};

/* raft.c */
void raft__set_role(struct raft *raft, enum raft_role role, struct raft_actions *actions);
bool raft__writes_full(const struct raft *raft);
/* Both return the number of the write. There must be room for it. */
uint64_t raft__persist_state(struct raft *raft, struct raft_actions *actions);
uint64_t raft__persist_entries(struct raft *raft, uint64_t first, enum raft_entry_type type,
                               struct raft_actions *actions);
void raft__commit(struct raft *raft, uint64_t index, struct raft_actions *actions);

/* election.c */
enum raft_error raft__campaign(struct raft *raft, struct raft_actions *actions);
void raft__count_own_vote(struct raft *raft, struct raft_actions *actions);
bool raft__is_quorum(size_t count, size_t voters_count);

/* replicate.c */
void raft__append(struct raft *raft, uint64_t count, enum raft_entry_type type,
                  struct raft_actions *actions);
enum raft_error raft__propose(struct raft *raft, uint32_t count, struct raft_actions *actions);
void raft__advance_commit(struct raft *raft, struct raft_actions *actions);
/* The largest index that a quorum has, given what each voter has. */
uint64_t raft__quorum_match(const uint64_t *match, size_t voters_count);

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
/* 0 where there is no such entry. */
uint64_t raft__log_term_at(const struct raft__log *log, uint64_t index);

#endif

/*
 * The lock table: the replicated state machine. A deterministic function of the commands that were
 * applied: no clock, no I/O, no allocation after lock_table_init().
 *
 * Words. A *lock* is a directory; lock 1 is the root of the mount. A *claim* is held by a *handle*
 * of a *node*, on a *file* of a lock. What contenders compete for is the *resource*: the whole lock
 * where its limit is a number, else the file.
 *
 * Who is who. A claim's *owner* is its handle, or for fcntl what the command names, a process say;
 * an owner counts once on a resource, as exclusive if any of its claims there is. Owners may be as
 * many as the limit says (1 where it is unlimited), all shared ones together counting as one.
 *
 * What does not stand in a request's way is its *own*: claims of its owner; to an fcntl request,
 * what its handle has by creating and by flock; to the others, the fcntl claims of an owner that
 * has none on the resource but through the request's handle. Two fcntl owners that share a handle,
 * such as parent and child, are strangers.
 *
 * What ACQUIRE does, in this order:
 *
 *  - ESTALE where the lock is gone or the name belongs to a lock in it. EINVAL where the handle has
 *    a claim or a wait on another file: a handle is on one file.
 *
 *  - A flock claim that the handle already holds, or an fcntl claim that the owner holds on this
 *    file: of the same mode, it stays as it is, and its token is the result. Of the other mode,
 *    flock: it ends first, which may grant waiters, and the request goes on like a new one
 *    (flock(2): a conversion is not atomic; a failing one has lost the lock). fcntl: it ends when
 *    the request is granted, before anybody gains by it, and stays when that is refused or waits
 *    (POSIX).
 *
 *  - Granted, when it fits beside all owners that can stand in its way, no delay is in force, and
 *    it overtakes nobody: a flock or fcntl passes waiters only while something of its own is there,
 *    since these wait for that. A claim by creating makes its file: it is refused where that has a
 *    claim, of whomever, and where its handle holds anything.
 *
 *  - Else refused, where it does not wait (EEXIST for CLAIM_CREATE, EWOULDBLOCK for the others), or
 *    queued at the tail of the resource's queue.
 *
 *  A claim by creating never waits. ENOLCK where there is no room: a grant needs fewer than
 * `claims` claims, a wait fewer than `waiters` waiters, and fewer than both limits in sum of both,
 * so that every waiter can become a claim; and a file that is new finds no room for its name. A
 * conversion by flock has then lost its claim; one by fcntl that is granted needs no room.
 *
 * What a command ends is over before anybody gains by it. Then every resource that somebody has
 * left, by the end of a claim, of a wait or of a delay, whose limit was raised, or where somebody
 * who waits has got a claim by the same handle or owner, lets in who waits there, in order: the
 * head of the queue as long as it fits, and behind a head that does not fit those that pass it as
 * above. Where the waiter's handle has got a flock claim meanwhile (two threads wait through one
 * handle), or its owner an fcntl claim on the file: of the same mode, that one stays, and the
 * effect says `again`, with its token; of the other mode, it ends first, as converted.
 *
 * CANCEL ends the claim that its target was granted. A target that found what it wants held already
 * was granted nothing, so its CANCEL ends nothing. Where an fcntl claim replaced one of the other
 * mode, CANCEL leaves the weaker of both modes, under the same token; unless another request has
 * found it held since, and so confirmed it: then its number of the command is 0, and no CANCEL
 * finds it.
 *
 * A claim that INCARNATION ends leaves its resource delayed, where the lock has a delay: nobody is
 * granted it until END_DELAY names that delay, and a delay under way gives way to it. A lock with a
 * delay in it cannot be removed.
 *
 * A claim's TTL is its lock's at the time of the grant, or the session's where that is 0; a claim
 * by creating keeps the release mode that its lock had.
 *
 * Tokens come from one counter of the whole table: every grant's is larger than all before.
 *
 * A file has content while it has a claim: with its last claim it is gone, before anybody else gets
 * one. The conversion of an fcntl claim keeps it.
 */
#ifndef FS_LOCK_TABLE_H
#define FS_LOCK_TABLE_H

#include "command.h"

struct lock_table;

#define LOCK_TABLE_ROOT 1

/* Sizes, as a rule those of limits.h; tests make them small. */
struct lock_table_limits {
    uint32_t locks;
    uint32_t claims;
    uint32_t waiters;
    uint32_t sessions;
    uint64_t names_bytes;
    uint64_t contents_bytes;
};

extern const struct lock_table_limits lock_table_limits_default;

size_t lock_table_size(const struct lock_table_limits *limits);

/* Makes a table that holds the root only. `memory` is zeroed, lock_table_size() bytes, 16-byte
 * aligned, and stays the caller's. */
struct lock_table *lock_table_init(void *memory, const struct lock_table_limits *limits);
/* Back to what it was then. */
void lock_table_clear(struct lock_table *table);

enum effect_type {
    EFFECT_GRANTED = 1, /* a waiter became a claim */
    EFFECT_DROPPED,     /* a waiter left the queue without a claim */
    EFFECT_ENDED,       /* a claim ended */
    EFFECT_DELAYED,     /* a delay began; `token` names it, see lock_table_next_delay() */
};

enum effect_cause {
    CAUSE_NONE = 0,
    CAUSE_RELEASED,    /* its handle was closed or unlocked */
    CAUSE_CONVERTED,   /* its handle asked for the other mode */
    CAUSE_UNLINKED,    /* its file was unlinked */
    CAUSE_CANCELLED,   /* its request was given up */
    CAUSE_INCARNATION, /* its daemon started anew */
    CAUSE_EXITED,      /* the process that made it has ended */
    CAUSE_FORCED,      /* it was revoked */
};

/* What a command did to others than its sender, or beyond its result. */
struct effect {
    enum effect_type type;
    enum effect_cause cause; /* of ENDED and DROPPED */
    uint64_t node;
    uint64_t handle;
    uint64_t seq;   /* of the ACQUIRE */
    uint64_t token; /* of GRANTED and ENDED; of a delay */
    uint64_t owner; /* of an fcntl claim */
    uint32_t ttl_ms;
    enum release_mode release; /* of a claim by creating */
    bool again;                /* GRANTED: it was held already, and nothing was granted */
    bool converted;            /* GRANTED, of fcntl: it replaces one of the other mode */
    uint64_t lock;
    struct span name; /* of the file */
    uint32_t uid;
    enum claim_kind kind;
    enum claim_mode claim_mode;
    struct process process;
    bool same_boot; /* ENDED by INCARNATION: the machine has not been started anew since */
};

/* Called during lock_table_apply(), which it must not re-enter; `effect` lives for the call. */
typedef void effect_sink(void *context, const struct effect *effect);

struct command_result lock_table_apply(struct lock_table *table, const struct command *command,
                                       effect_sink *sink, void *context);

/* The same, with the result told at its place among the effects: behind what the command did,
 * before what others gain by it. */
typedef void result_sink(void *context, const struct command_result *result);

void lock_table_apply_in_order(struct lock_table *table, const struct command *command,
                               result_sink *tell_result, effect_sink *sink, void *context);

/* Looks. Views are copies, valid as long as the caller likes. */

struct lock_view {
    uint64_t id;
    uint64_t parent; /* 0 for the root */
    uint32_t uid;
    uint32_t gid;
    uint32_t mode;   /* permission bits */
    uint32_t limit;  /* how many claims; 0: unlimited */
    uint32_t ttl_ms; /* 0: the session's */
    uint32_t delay_ms;
    enum release_mode release;
    uint64_t last_token;
    int64_t stamp_ms; /* when a lock in it was made or removed last */
    uint32_t locks_count;
    uint32_t claims_count;
    uint32_t waiters_count;
    uint32_t delays_count;
    size_t name_len;
    char name[LIMIT_NAME_BYTES + 1];
};

struct file_view {
    uint64_t id; /* increases in the order in which files came to be */
    uint32_t claims_count;
    uint64_t create_token; /* 0: no claim by creating */
    uint64_t create_node;
    uint64_t create_handle;
    uint32_t mode; /* of the claim by creating, and its owner */
    uint32_t uid;
    uint32_t gid;
    struct process process; /* that made it */
    enum release_mode release;
    uint32_t content_len;
    size_t name_len;
    char name[LIMIT_NAME_BYTES + 1];
};

struct claim_view {
    uint64_t token; /* 0 for a waiter */
    uint64_t lock;
    uint64_t position; /* increases in the order of claims and waits */
    uint64_t node;
    uint64_t handle;
    uint64_t seq;
    enum claim_kind kind;
    enum claim_mode claim_mode;
    uint64_t owner; /* of fcntl */
    uint32_t uid;
    uint32_t ttl_ms;
    struct process process;
    int64_t stamp_ms; /* when granted, or queued */
    size_t name_len;
    char name[LIMIT_NAME_BYTES + 1];
};

/* A resource that nobody is granted for a while. */
struct delay_view {
    uint64_t id;
    uint64_t lock;
    uint32_t delay_ms;
    int64_t stamp_ms; /* when it began */
    size_t name_len;  /* 0 where the resource is the whole lock */
    char name[LIMIT_NAME_BYTES + 1];
};

struct session_view {
    uint64_t incarnation;
    uint64_t seq; /* of the last command applied */
    uint8_t boot_id[BOOT_ID_BYTES];
};

/* Each returns false, and leaves `ret_view` alone, where there is no such thing. */
bool lock_table_get_lock(const struct lock_table *table, uint64_t lock, struct lock_view *ret_view);
bool lock_table_get_session(const struct lock_table *table, uint64_t node,
                            struct session_view *ret_view);
/* A file is there while it is claimed; waiters alone make none. */
bool lock_table_get_file(const struct lock_table *table, uint64_t lock, struct span name,
                         struct file_view *ret_view);
/* The claim `token`, where it is one of `lock`. */
bool lock_table_get_claim(const struct lock_table *table, uint64_t lock, uint64_t token,
                          struct claim_view *ret_view);
/* The id of lock `name` in `lock`, 0 where there is none. */
uint64_t lock_table_find(const struct lock_table *table, uint64_t lock, struct span name);

/* Walks: the first of its kind in `lock` after `after` (0 at first: from the start), in order of
 * id, token, or position. Cheap when `after` still exists. */
bool lock_table_next_lock(const struct lock_table *table, uint64_t lock, uint64_t after,
                          struct lock_view *ret_view);
bool lock_table_next_file(const struct lock_table *table, uint64_t lock, uint64_t after,
                          struct file_view *ret_view);
bool lock_table_next_claim(const struct lock_table *table, uint64_t lock, uint64_t after_token,
                           struct claim_view *ret_view);
bool lock_table_next_waiter(const struct lock_table *table, uint64_t lock, uint64_t after_position,
                            struct claim_view *ret_view);

/* The claims on file `name` of `lock`, backwards: the last one with a token below `before_token`
 * (0: the newest), which still exists. */
bool lock_table_prev_claim_on(const struct lock_table *table, uint64_t lock, struct span name,
                              uint64_t before_token, struct claim_view *ret_view);

/* All delays of the table, of whatever lock, in the order in which they began. Cheap when `after`
 * still exists, or is one less than the id that is looked for. */
bool lock_table_next_delay(const struct lock_table *table, uint64_t after,
                           struct delay_view *ret_view);
/* All locks of the table: the id of one after another, in no order; `cursor` is 0 at first. 0 at
 * the end. */
uint64_t lock_table_walk(const struct lock_table *table, uint32_t *cursor);
/* The same for all claims, and all waiters. What is there from the first call to the last is met
 * once. Looks at `*steps` slots at most, and counts them down: where these are used up, there may
 * be more. */
enum walk {
    WALK_END = 0,
    WALK_FOUND,
    WALK_MORE,
};

enum walk lock_table_walk_claims(const struct lock_table *table, uint32_t *cursor, uint32_t *steps,
                                 struct claim_view *ret_view);
enum walk lock_table_walk_waiters(const struct lock_table *table, uint32_t *cursor, uint32_t *steps,
                                  struct claim_view *ret_view);

/* Whether the resource of file `name` has no place for somebody who holds nothing there. */
bool lock_table_is_taken(const struct lock_table *table, uint64_t lock, struct span name,
                         enum claim_mode mode);

/* Whether anybody waits for the resource of file `name`. */
bool lock_table_has_waiters(const struct lock_table *table, uint64_t lock, struct span name);

/* The first claim with a token above `after_token`, on the resource of file `name`, that stands in
 * the way of such an fcntl request (F_GETLK). `handle` and `owner` are the request's. */
bool lock_table_get_obstacle(const struct lock_table *table, uint64_t lock, struct span name,
                             uint64_t after_token, uint64_t node, uint64_t handle, uint64_t owner,
                             enum claim_mode mode, struct claim_view *ret_view);

/* Whether a claim counts, for somebody who knows better than the table. */
typedef bool claim_filter(const void *context, const struct claim_view *claim);

/* Whether such a request would fit into a lock whose limit is a number if it had those claims only
 * that `counts` lets count. Looks at each of them. */
bool lock_table_fits_beside(const struct lock_table *table, uint64_t lock, struct span name,
                            uint64_t node, uint64_t handle, uint64_t owner, enum claim_mode mode,
                            claim_filter *counts, const void *context);

/* Copies up to `size` bytes of a claimed file's content from `offset`; returns how many. */
size_t lock_table_read(const struct lock_table *table, uint64_t lock, struct span name,
                       uint64_t offset, char *buffer, size_t size);

struct lock_table_counts {
    uint32_t locks; /* the root included */
    uint32_t claims;
    uint32_t waiters;
    uint32_t delays;
    uint64_t token; /* the highest ever granted */
    uint64_t names_bytes;
    uint64_t contents_bytes;
};

void lock_table_get_counts(const struct lock_table *table, struct lock_table_counts *ret_counts);

/* Snapshots: the whole table as a sequence of records, the same for equal states. */

/* Where a walk over the records is. All zeros at first. */
struct lock_table_cursor {
    uint32_t part;
    uint32_t lock;
    uint32_t slot;
    uint32_t heads[LIMIT_SESSIONS];
};

/* Encodes the next record into `buffer`, which has LIMIT_SNAPSHOT_RECORD_BYTES, and returns its
 * length, 0 at the end. The table must not change between. */
size_t lock_table_save(const struct lock_table *table, struct lock_table_cursor *cursor,
                       char *buffer);

/* The bytes that the records take in a file, at most. */
uint64_t lock_table_snapshot_bytes(const struct lock_table *table);
/* By how many a command can raise that, at most. What gives back, by whatever way, does not: not
 * even what it grants others, and not where a claim leaves a delay behind. */
uint64_t lock_table_snapshot_growth(const struct command *command);

/* What a restoration has learnt. All zeros at first. */
struct lock_table_restoring {
    uint32_t part;
    uint64_t last; /* number in its part, or how many there were */
    struct {
        uint32_t sessions;
        uint32_t locks;
        uint32_t files;
        uint32_t claims;
        uint32_t waiters;
        uint32_t delays;
    } expected;
};

/* Takes the next record into a table that is as lock_table_init() left it. False where it makes no
 * sense, or finds no room: the table is then of no more use. */
bool lock_table_restore(struct lock_table *table, struct lock_table_restoring *restoring,
                        struct span record);
/* After the last one: whether nothing is missing. */
bool lock_table_is_restored(const struct lock_table *table,
                            const struct lock_table_restoring *restoring);

/* A number that is equal for equal states, whatever path led there (for tests and the simulator).
 */
uint64_t lock_table_digest(const struct lock_table *table);

#endif

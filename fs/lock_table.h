/*
 * The lock table: the replicated state machine. A deterministic function of the commands that were
 * applied: no clock, no I/O, no allocation after lock_table_init().
 *
 * Words. A *lock* is a directory; lock 1 is the root of the mount. A *claim* is held by a *handle*
 * of a *node*, on a *file* of a lock. What contenders compete for is the *resource*: the whole lock
 * where its limit is a number, else the file.
 *
 * What ACQUIRE does, in this order:
 *  - ESTALE where the lock is gone or the name belongs to a lock in it. EINVAL where the handle has
 * a claim or a wait on another file: a handle is on one file.
 *  - A flock claim that the handle already holds: of the same mode, it stays as it is, and its
 * token is the result (flock(2): nothing happens). Of the other mode, it ends first, which may
 * grant waiters, and the request goes on like a new one (flock(2): a conversion is not atomic; a
 *    failing one has lost the lock).
 *  - Granted, when no other handle's claim on the resource conflicts (two claims conflict unless
 *    both are shared) and it overtakes nobody: a flock passes waiters only while its own handle
 * holds another claim on the resource, since these wait for that one. A claim by creating is never
 *    re-entrant: it is refused where its handle holds anything.
 *  - Else refused, where it does not wait (EEXIST for CLAIM_CREATE, EWOULDBLOCK for CLAIM_FLOCK),
 *    or queued at the tail of the resource's queue.
 *  A claim by creating never waits. ENOLCK where there is no room: a grant needs fewer than
 * `claims` claims, a wait fewer than `waiters` waiters, and fewer than both limits in sum of both,
 * so that every waiter can become a claim; and a file that is new finds no room for its name. A
 * conversion has then lost its claim.
 *
 * What a command ends is over before anybody gains by it. Then every resource that somebody has
 * left, by the end of a claim or of a wait, lets the head of its queue in, as far as it goes: one
 * exclusive claim, or all shared ones up to the first exclusive waiter. Where the waiter's handle
 * has got a flock claim meanwhile (two threads wait through one handle), that one ends first, as
 * converted, whatever its mode: a waiter's grant is always a new one.
 *
 * Tokens come from one counter of the whole table: every grant's is larger than all before.
 *
 * A file has content while it has a claim: with its last claim it is gone.
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

enum effect_type {
    EFFECT_GRANTED = 1, /* a waiter became a claim */
    EFFECT_DROPPED,     /* a waiter left the queue without a claim */
    EFFECT_ENDED,       /* a claim ended */
};

enum effect_cause {
    CAUSE_NONE = 0,
    CAUSE_RELEASED,    /* its handle was closed or unlocked */
    CAUSE_CONVERTED,   /* its handle asked for the other mode */
    CAUSE_UNLINKED,    /* its file was unlinked */
    CAUSE_CANCELLED,   /* its request was given up */
    CAUSE_INCARNATION, /* its daemon started anew */
};

/* What a command did to others than its sender, or beyond its result. */
struct effect {
    enum effect_type type;
    enum effect_cause cause; /* of ENDED and DROPPED */
    uint64_t node;
    uint64_t handle;
    uint64_t seq;   /* of the ACQUIRE */
    uint64_t token; /* of GRANTED and ENDED */
    uint64_t lock;
    enum claim_kind kind;
    enum claim_mode claim_mode;
    struct process process;
    bool same_boot; /* ENDED by INCARNATION: the machine has not been started anew since */
};

/* Called during lock_table_apply(), which it must not re-enter; `effect` lives for the call. */
typedef void effect_sink(void *context, const struct effect *effect);

struct command_result lock_table_apply(struct lock_table *table, const struct command *command,
                                       effect_sink *sink, void *context);

/* Looks. Views are copies, valid as long as the caller likes. */

struct lock_view {
    uint64_t id;
    uint64_t parent; /* 0 for the root */
    uint32_t uid;
    uint32_t gid;
    uint32_t mode;  /* permission bits */
    uint32_t limit; /* how many claims; 0: unlimited */
    uint64_t last_token;
    int64_t stamp_ms; /* when a lock in it was made or removed last */
    uint32_t locks_count;
    uint32_t claims_count;
    uint32_t waiters_count;
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
    uint32_t content_len;
    size_t name_len;
    char name[LIMIT_NAME_BYTES + 1];
};

struct claim_view {
    uint64_t token;    /* 0 for a waiter */
    uint64_t position; /* increases in the order of claims and waits */
    uint64_t node;
    uint64_t handle;
    uint64_t seq;
    enum claim_kind kind;
    enum claim_mode claim_mode;
    uint32_t uid;
    struct process process;
    int64_t stamp_ms; /* when granted, or queued */
    size_t name_len;
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

/* Copies up to `size` bytes of a claimed file's content from `offset`; returns how many. */
size_t lock_table_read(const struct lock_table *table, uint64_t lock, struct span name,
                       uint64_t offset, char *buffer, size_t size);

struct lock_table_counts {
    uint32_t locks; /* the root included */
    uint32_t claims;
    uint32_t waiters;
    uint64_t token; /* the highest ever granted */
    uint64_t contents_bytes;
};

void lock_table_get_counts(const struct lock_table *table, struct lock_table_counts *ret_counts);

/* A number that is equal for equal states, whatever path led there (for tests and the simulator).
 */
uint64_t lock_table_digest(const struct lock_table *table);

#endif

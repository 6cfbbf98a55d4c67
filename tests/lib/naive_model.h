/*
 * A model of the lock table that is as plain as it can be: lists, strings, linear scans, malloc. It
 * was written from fs/command.h and fs/lock_table.h alone, and shares the types of these headers
 * and nothing else, so that a mistake in one of the two shows as a difference.
 *
 * Everything in it may be looked at; but for `mark`, nothing but naive_apply() may change it.
 */
#ifndef TESTS_NAIVE_MODEL_H
#define TESTS_NAIVE_MODEL_H

#include "fs/lock_table.h"

/* Pointers to things of one kind, in the order in which they came. */
struct naive_list {
    void **items;
    size_t count;
};

struct naive_lock {
    uint64_t id;
    uint64_t parent;
    char *name;
    uint32_t uid;
    uint32_t gid;
    uint32_t mode;
    uint32_t limit;
    uint32_t ttl_ms;
    uint32_t delay_ms;
    enum release_mode release;
    uint64_t last_token;
    int64_t stamp_ms;
    /* The MKDIR that made it. */
    uint64_t node;
    uint64_t incarnation;
    uint64_t seq;
};

/* A claim, or a waiter: `token` is 0 then. */
struct naive_claim {
    uint64_t token;
    uint64_t lock;
    char *name;
    uint64_t node;
    uint64_t handle;
    uint64_t seq;
    enum claim_kind kind;
    enum claim_mode claim_mode;
    uint64_t owner; /* of fcntl */
    uint32_t session_ttl_ms;
    uint32_t ttl_ms;           /* of a claim */
    enum release_mode release; /* of a claim by creating */
    struct process process;
    int64_t stamp_ms;
    uint32_t uid;      /* of who asked */
    uint32_t mode;     /* of the file, where the claim was made by creating */
    uint32_t file_uid; /* likewise */
    uint32_t file_gid; /* likewise */
    bool converted;    /* by fcntl: it replaced one of the other mode */
    bool weakened;     /* then that was cancelled */
    bool doomed;       /* ends with the command that is being applied */
    uint64_t mark;     /* the caller's own note, 0 at first */
};

/* There while somebody has a claim on it or waits for one, or while it is delayed; seen only while
 * somebody has a claim. */
struct naive_file {
    uint64_t lock;
    char *name;
    char *content;
    size_t content_len;
    uint64_t mark; /* the caller's own note, 0 at first */
};

/* A resource that nobody is granted. */
struct naive_delay {
    uint64_t id; /* 0 until the table's choice is known */
    uint64_t lock;
    char *name; /* empty where the resource is the whole lock */
    uint32_t delay_ms;
    int64_t stamp_ms;
};

struct naive_session {
    uint64_t node;
    uint64_t incarnation;
    uint64_t seq;
    uint8_t boot_id[BOOT_ID_BYTES];
};

struct naive_model {
    struct lock_table_limits limits;
    struct naive_list locks;
    struct naive_list claims;  /* in order of token */
    struct naive_list waiters; /* first come first */
    struct naive_list files;   /* in the order in which they came to be */
    struct naive_list delays;  /* in the order in which they began */
    struct naive_list sessions;
    uint64_t highest_lock;  /* the highest id that a lock ever had */
    uint64_t highest_delay; /* likewise */
    uint64_t token;
    uint64_t passes; /* waiters that were let in past another one, so far */
    effect_sink *sink;
    void *context;
    const struct effect *order;
    size_t order_count;
};

struct naive_model *naive_new(const struct lock_table_limits *limits);
void naive_free(struct naive_model *model);

/*
 * The table is free to choose in which order it serves the queues of several resources, where one
 * command ends claims on them: the model then serves them in the order in which `order`, the
 * effects that the table had, grants something on them.
 */
struct command_result naive_apply(struct naive_model *model, const struct command *command,
                                  effect_sink *sink, void *context, const struct effect *order,
                                  size_t order_count);

/* Ids are the table's to choose: the lock that MKDIR has just made takes this one. */
void naive_set_lock_id(struct naive_model *model, uint64_t lock, uint64_t id);
/* Likewise the delay of this resource, which has just begun: delays that begin together may do so
 * in any order. False where there is no such one. */
bool naive_set_delay_id(struct naive_model *model, uint64_t lock, struct span name, uint64_t id);

/* Typed access to the lists. */
struct naive_lock *naive_lock_at(const struct naive_model *model, size_t i);
struct naive_claim *naive_claim_at(const struct naive_model *model, size_t i);
struct naive_claim *naive_waiter_at(const struct naive_model *model, size_t i);
struct naive_file *naive_file_at(const struct naive_model *model, size_t i);
struct naive_delay *naive_delay_at(const struct naive_model *model, size_t i);

/* NULL where there is no such thing. */
struct naive_lock *naive_lock(const struct naive_model *model, uint64_t id);
struct naive_lock *naive_child(const struct naive_model *model, uint64_t parent, struct span name);
bool naive_is_claimed(const struct naive_model *model, uint64_t lock, const char *name);
/* A claimed file. */
struct naive_file *naive_file(const struct naive_model *model, uint64_t lock, struct span name);
struct naive_session *naive_session(const struct naive_model *model, uint64_t node);
/* The claim by creating on a file. */
struct naive_claim *naive_creator(const struct naive_model *model, uint64_t lock, struct span name);

bool naive_is_delayed(const struct naive_model *model, uint64_t lock, const char *name);
/* The claim by fcntl of an owner on a file. */
struct naive_claim *naive_fcntl_claim(const struct naive_model *model, uint64_t lock,
                                      struct span name, uint64_t node, uint64_t owner);
/* How many owners hold something on the resource of a file, all shared ones counted as one. */
uint32_t naive_held(const struct naive_model *model, uint64_t lock, const char *name);
/* Whether the resource of a file has no place for somebody who holds nothing there. */
bool naive_is_taken(const struct naive_model *model, uint64_t lock, struct span name,
                    enum claim_mode mode);
/* The first claim above a token that stands in the way of such a request by fcntl. */
const struct naive_claim *naive_obstacle(const struct naive_model *model, uint64_t lock,
                                         struct span name, uint64_t after_token, uint64_t node,
                                         uint64_t handle, uint64_t owner, enum claim_mode mode);
/* Whether such a request would fit beside those claims whose token is no multiple of `but`. */
bool naive_fits_beside(const struct naive_model *model, uint64_t lock, struct span name,
                       uint64_t node, uint64_t handle, uint64_t owner, enum claim_mode mode,
                       uint64_t but);

/* Levels below the root. */
unsigned naive_depth(const struct naive_model *model, uint64_t lock);
uint64_t naive_contents_bytes(const struct naive_model *model);
bool naive_same_name(const char *name, struct span span);

#endif

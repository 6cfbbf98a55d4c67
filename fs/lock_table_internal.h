/* What the files of the lock table share: its records, and how they hang together. */
#ifndef FS_LOCK_TABLE_INTERNAL_H
#define FS_LOCK_TABLE_INTERNAL_H

#include "lock_table.h"
#include "memory.h"

/* Who competes for a resource, and who has it. The resource of a file is its lock where that has a
 * numeric limit, else the file itself. */
struct queue {
    uint32_t exclusive_count;
    uint32_t shared_count;
    struct list waiters;
};

struct session {
    uint64_t node;
    uint64_t incarnation;
    uint64_t seq; /* of the last command applied */
    uint8_t boot_id[BOOT_ID_BYTES];
    struct list claims;
    struct list waiters;
};

struct lock {
    uint64_t id;
    struct chain by_id;
    struct chain by_name;
    uint32_t parent;
    uint32_t depth; /* 0: the root */
    uint32_t name;  /* chunks */
    uint32_t name_len;
    uint32_t mode;
    uint32_t uid;
    uint32_t gid;
    uint32_t limit; /* 0: unlimited */
    uint64_t last_token;
    int64_t stamp_ms;
    /* The MKDIR that made it, for its CANCEL. */
    uint64_t maker_incarnation;
    uint64_t maker_seq;
    struct link siblings;
    struct list locks;
    struct list files;
    struct list claims;  /* in order of token */
    struct list waiters; /* in order of position */
    uint32_t locks_count;
    uint32_t claims_count;
    uint32_t waiters_count;
    struct queue queue; /* where the limit is a number */
};

/* A name that is claimed or waited for. */
struct file {
    uint64_t id;
    struct chain by_id;
    struct chain by_name;
    uint32_t lock;
    uint32_t name; /* chunks */
    uint32_t name_len;
    struct link siblings;
    uint32_t claims_count;
    uint32_t waiters_count;
    uint32_t create_claim; /* 0: none */
    uint32_t mode;         /* with create_claim, as are the owner's */
    uint32_t uid;
    uint32_t gid;
    uint32_t content; /* chunks */
    uint32_t content_len;
    bool unsettled; /* see struct applying */
    struct link in_unsettled;
    struct queue queue; /* where the lock is unlimited */
};

/* A claim, or a request that waits to become one. */
struct claim {
    uint64_t order; /* a claim's token, a waiter's position */
    uint64_t handle;
    uint64_t seq;
    uint64_t process_start;
    int64_t stamp_ms;
    struct chain by_order;
    struct chain by_owner;
    struct link in_lock;
    struct link in_session;
    struct link in_queue; /* of a waiter */
    uint32_t file;
    uint32_t pid;
    uint32_t uid;
    uint32_t ttl_ms;
    uint16_t session;
    uint8_t kind;
    uint8_t mode;
    char comm[LIMIT_COMM_BYTES + 1];
};

struct lock_table {
    struct lock_table_limits limits;
    uint64_t token;   /* the last one granted */
    uint64_t next_id; /* of locks, files and positions: one counter, never reused */
    uint64_t names_bytes;
    uint64_t contents_bytes;
    struct slab locks;
    struct slab files;
    struct slab claims;
    struct slab waiters;
    struct slab sessions;
    struct slab chunks;
    struct index locks_by_id;
    struct index locks_by_name;
    struct index files_by_id;
    struct index files_by_name;
    struct index claims_by_token;
    struct index claims_by_owner;
    struct index waiters_by_position;
    struct index waiters_by_owner;
};

/* An apply under way. */
struct applying {
    struct lock_table *table;
    const struct command *command;
    uint32_t session;
    effect_sink *sink;
    void *context;
    /* Files that somebody has left. All that a command ends is over before anybody gains by it. */
    struct list unsettled;
};

static inline struct lock *lock_at(const struct lock_table *table, uint32_t slot)
{
    return slab_at(&table->locks, slot);
}

static inline struct file *file_at(const struct lock_table *table, uint32_t slot)
{
    return slab_at(&table->files, slot);
}

static inline struct claim *claim_at(const struct lock_table *table, uint32_t slot)
{
    return slab_at(&table->claims, slot);
}

static inline struct claim *waiter_at(const struct lock_table *table, uint32_t slot)
{
    return slab_at(&table->waiters, slot);
}

static inline struct session *session_at(const struct lock_table *table, uint32_t slot)
{
    return slab_at(&table->sessions, slot);
}

/* lock_table.c */
uint32_t lock_table__lock(const struct lock_table *table, uint64_t id);
uint32_t lock_table__child(const struct lock_table *table, uint32_t parent, struct span name);
uint32_t lock_table__session(const struct lock_table *table, uint64_t node);

/* lock_table_files.c: names that are claimed or waited for, and their contents. */
uint32_t lock_table__file(const struct lock_table *table, uint32_t lock, struct span name);
uint32_t lock_table__file_make(struct lock_table *table, uint32_t lock, struct span name);
void lock_table__file_drop_content(struct lock_table *table, uint32_t file);
void lock_table__file_drop_unused(struct lock_table *table, uint32_t slot);
int lock_table__content_resize(struct lock_table *table, uint32_t slot, uint64_t len);
bool lock_table__name_take(struct lock_table *table, struct span name, uint32_t *ret_chunks);
void lock_table__name_give(struct lock_table *table, uint32_t *chunks, size_t len);

/* lock_table_claims.c: who holds, who waits. */
struct command_result lock_table__acquire(struct applying *applying);
/* The next claim of a handle after `slot` (0: the first), 0 at the end. */
uint32_t lock_table__claim_of(const struct lock_table *table, uint32_t session, uint64_t handle,
                              uint32_t slot);
/* Each of these lets in who is next, when all is over.
 * End the flock claim of a handle of the applying session; its waits go on. */
void lock_table__end_flock(struct applying *applying, uint64_t handle);
/* End all that a handle of the applying session holds and waits for. */
void lock_table__end_handle(struct applying *applying, uint64_t handle, enum effect_cause cause);
/* End what the command `seq` of a handle gained. True when there was something. */
bool lock_table__end_seq(struct applying *applying, uint64_t handle, uint64_t seq);
/* End all that a session holds and waits for. */
void lock_table__end_session(struct applying *applying, uint32_t session, bool same_boot);

#endif

/* What the files of the lock table share: its records, and how they hang together. */
#ifndef FS_LOCK_TABLE_INTERNAL_H
#define FS_LOCK_TABLE_INTERNAL_H

#include "lock_table.h"
#include "memory.h"

/* Who competes for a resource, and who has it. The resource of a file is its lock where that has a
 * numeric limit, else the file itself. */
struct queue {
    uint32_t exclusive_owners; /* with an exclusive claim */
    uint32_t shared_owners;    /* with shared ones only */
    uint32_t passers;          /* waiters whose owner or handle held something when they came */
    uint32_t delay;            /* 0: none */
    struct list waiters;
};

/* Nobody is granted a resource for a while. */
struct delay {
    uint64_t id;
    int64_t stamp_ms;
    uint32_t delay_ms;
    uint32_t lock;
    uint32_t file; /* 0: the resource is the lock */
    struct chain by_id;
    struct link links;
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
    uint32_t ttl_ms;
    uint32_t delay_ms;
    enum release_mode release;
    uint32_t delays_count;
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
    struct list claims; /* in order of token */
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
    uint64_t owner; /* of fcntl */
    uint64_t process_start;
    int64_t stamp_ms;
    struct chain by_order;
    struct chain by_handle;
    struct chain by_owner; /* of fcntl only */
    struct link in_lock;
    struct link in_session;
    union {
        struct link in_queue; /* of a waiter */
        struct link in_file;  /* of a claim */
    };
    uint32_t file;
    uint32_t pid;
    uint32_t uid;
    uint32_t ttl_ms;
    uint16_t session;
    uint8_t kind; /* 0: no claim is in this slot, see lock_table_walk_claims() */
    uint8_t mode;
    uint8_t release; /* of a claim by creating */
    uint8_t before;  /* of fcntl: the mode of the claim that it replaced, 0: none */
    bool passer;     /* of a waiter: counted in its queue */
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
    struct slab delays;
    struct list delays_in_order;
    struct slab chunks;
    struct index locks_by_id;
    struct index locks_by_name;
    struct index files_by_id;
    struct index files_by_name;
    struct index claims_by_token;
    struct index claims_by_handle;
    struct index claims_by_owner; /* of fcntl claims only, and by their resource */
    struct index waiters_by_position;
    struct index waiters_by_handle;
    struct index waiters_by_owner; /* of fcntl requests only */
    struct index delays_by_id;
    uint64_t *marks; /* a bit for each slot of a claim: of one look only, no part of the state */
};

/* An apply under way. */
struct applying {
    struct lock_table *table;
    const struct command *command;
    uint32_t session;
    effect_sink *sink;
    void *context;
    uint64_t first_id; /* ids from this one on are of this command */
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

static inline struct delay *delay_at(const struct lock_table *table, uint32_t slot)
{
    return slab_at(&table->delays, slot);
}

static inline struct session *session_at(const struct lock_table *table, uint32_t slot)
{
    return slab_at(&table->sessions, slot);
}

/* lock_table.c */
/* Gives a lock that is filled in its place among the others. */
void lock_table__add_lock(struct lock_table *table, uint32_t slot, struct span name);
uint32_t lock_table__lock(const struct lock_table *table, uint64_t id);
uint32_t lock_table__child(const struct lock_table *table, uint32_t parent, struct span name);
uint32_t lock_table__session(const struct lock_table *table, uint64_t node);

/* lock_table_looks.c: the lock that follows in a walk over the tree, parents first; 0 at the end.
 */
uint32_t lock_table__walk(const struct lock_table *table, uint32_t slot);

/* lock_table_files.c: names that are claimed or waited for, and their contents. */
uint32_t lock_table__file(const struct lock_table *table, uint32_t lock, struct span name);
uint32_t lock_table__file_by_id(const struct lock_table *table, uint64_t id);
uint32_t lock_table__file_make(struct lock_table *table, uint32_t lock, struct span name);
uint32_t lock_table__file_put(struct lock_table *table, uint32_t lock, struct span name,
                              uint64_t id);
void lock_table__file_drop_content(struct lock_table *table, uint32_t file);
void lock_table__file_drop_unused(struct lock_table *table, uint32_t slot);
int lock_table__content_resize(struct lock_table *table, uint32_t slot, uint64_t len);
bool lock_table__name_take(struct lock_table *table, struct span name, uint32_t *ret_chunks);
void lock_table__name_give(struct lock_table *table, uint32_t *chunks, size_t len);

/* lock_table_claims.c: who holds, who waits. */
struct command_result lock_table__acquire(struct applying *applying);
/* Lets in who is next where somebody has left; what ends claims and waits is called before. */
void lock_table__settle(struct applying *applying);
/* End the flock claim of a handle of the applying session; its waits go on. */
void lock_table__end_flock(struct applying *applying, uint64_t handle);
/* End the fcntl claim of an owner of the applying session on a file. */
void lock_table__end_fcntl(struct applying *applying, uint64_t owner, uint32_t file);
/* End all that a handle of a session holds and waits for; claims that live until their process ends
 * only where `exit_too`. */
void lock_table__end_handle(struct applying *applying, uint32_t session, uint64_t handle,
                            bool exit_too, enum effect_cause cause);
/* End one claim, and nothing else of its handle. */
void lock_table__end_claim(struct applying *applying, uint32_t slot, enum effect_cause cause);
/* End what the command `seq` of a handle gained. True when there was something. */
bool lock_table__end_seq(struct applying *applying, uint64_t handle, uint64_t seq);
/* End all that a session holds and waits for. */
void lock_table__end_session(struct applying *applying, uint32_t session, bool same_boot);
void lock_table__end_delay(struct applying *applying, uint64_t id);
/* A lock's limit was raised: whom it lets in now. */
void lock_table__limit_raised(struct applying *applying, uint32_t lock);
/* Adds a claim, or a waiter, that is newer than all others of its kind, as it is. There is room. */
uint32_t lock_table__put_claim(struct lock_table *table, const struct claim *from);
void lock_table__put_waiter(struct lock_table *table, const struct claim *from);
/* 0: there is none; no room. */
uint32_t lock_table__delay_by_id(const struct lock_table *table, uint64_t id);
uint32_t lock_table__put_delay(struct lock_table *table, const struct delay *from);

/* lock_table_owners.c: whose claims are whose, and who stands in whose way. */

/* The hash of a handle, or of an fcntl owner, of a session. */
uint64_t lock_table__owner_hash(uint32_t session, uint64_t handle_or_owner);
uint32_t lock_table__claim(const struct lock_table *table, uint64_t token);
/* The next claim, or waiter, of a handle after `slot` (0: the first), 0 at the end. */
uint32_t lock_table__claim_of(const struct lock_table *table, uint32_t session, uint64_t handle,
                              uint32_t slot);
uint32_t lock_table__waiter_of(const struct lock_table *table, uint32_t session, uint64_t handle,
                               uint32_t slot);
/* In claims_by_owner. A resource stays the same queue while anything is held there. */
uint64_t lock_table__fcntl_hash(const struct lock_table *table, uint32_t session, uint64_t owner,
                                const struct queue *queue);
/* The next waiter of an fcntl owner; `index` is waiters_by_owner. */
uint32_t lock_table__next_of_fcntl(const struct index *index, uint32_t session, uint64_t owner,
                                   uint32_t slot);
/* The flock claim of a handle, 0 where it has none. */
uint32_t lock_table__flock_of(const struct lock_table *table, uint32_t session, uint64_t handle);
/* What a flock or fcntl request for a file replaces, or finds held; 0 for a request to create. */
uint32_t lock_table__older_of(const struct lock_table *table, const struct claim *request,
                              uint32_t file);
struct queue *lock_table__queue_of(const struct lock_table *table, uint32_t file);
/* The queue that a request for a file would meet; `file` 0: nobody else knows that name. */
const struct queue *lock_table__queue_for(const struct lock_table *table, uint32_t lock,
                                          uint32_t file);
/* The next claim of the same owner as `who` on a resource after `slot` (0: the first). */
uint32_t lock_table__next_of_owner(const struct lock_table *table, const struct claim *who,
                                   const struct queue *queue, uint32_t slot);
/* As what an owner counts on a resource: 0 where it has no claim there. */
uint8_t lock_table__standing(const struct lock_table *table, const struct claim *who,
                             const struct queue *queue);
/* An owner counts as something else than before. */
void lock_table__count_owner(struct queue *queue, uint8_t before, uint8_t after);
/* How much of its limit a resource has given away. */
uint32_t lock_table__places_taken(const struct queue *queue);

/* Whether a request fits beside others, and whether it may pass those who wait. */
struct chance {
    bool fits;
    bool passes;
};

struct chance lock_table__chance_of(const struct lock_table *table, const struct queue *queue,
                                    uint32_t limit, const struct claim *request);
/* Whether a request would be granted but for those who wait, and delays. */
bool lock_table__fits(const struct lock_table *table, uint32_t lock, uint32_t file,
                      const struct claim *request);
/* Whether the claim would stand in the way of another of `mode` by this handle and owner. */
bool lock_table__is_obstacle(const struct claim *claim, uint32_t session, uint64_t handle,
                             uint64_t owner, uint8_t mode);

#endif

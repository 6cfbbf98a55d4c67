/* The lock table: whose claims are whose, and who stands in whose way. */
#include <assert.h>

#include "lock_table_internal.h"

/* Finding claims */

uint64_t lock_table__owner_hash(uint32_t session, uint64_t handle_or_owner)
{
    return hash_number(handle_or_owner ^ (uint64_t)session << 48);
}

static uint32_t next_of_handle(const struct index *index, uint32_t session, uint64_t handle,
                               uint32_t slot)
{
    slot = slot ? index_next(index, slot)
                : index_first(index, lock_table__owner_hash(session, handle));
    for (; slot; slot = index_next(index, slot)) {
        const struct claim *claim = slab_at(index->slab, slot);
        if (claim->session == session && claim->handle == handle)
            return slot;
    }
    return 0;
}

uint32_t lock_table__claim_of(const struct lock_table *table, uint32_t session, uint64_t handle,
                              uint32_t slot)
{
    return next_of_handle(&table->claims_by_handle, session, handle, slot);
}

uint32_t lock_table__waiter_of(const struct lock_table *table, uint32_t session, uint64_t handle,
                               uint32_t slot)
{
    return next_of_handle(&table->waiters_by_handle, session, handle, slot);
}

uint32_t lock_table__next_of_fcntl(const struct index *index, uint32_t session, uint64_t owner,
                                   uint32_t slot)
{
    slot =
        slot ? index_next(index, slot) : index_first(index, lock_table__owner_hash(session, owner));
    for (; slot; slot = index_next(index, slot)) {
        const struct claim *claim = slab_at(index->slab, slot);
        if (claim->session == session && claim->owner == owner)
            return slot;
    }
    return 0;
}

uint64_t lock_table__fcntl_hash(const struct lock_table *table, uint32_t session, uint64_t owner,
                                const struct queue *queue)
{
    uint64_t place = (uint64_t)((uintptr_t)queue - (uintptr_t)table);
    return hash_number(lock_table__owner_hash(session, owner) ^ place);
}

/* The next claim of an fcntl owner on a resource. */
static uint32_t fcntl_of(const struct lock_table *table, uint32_t session, uint64_t owner,
                         const struct queue *queue, uint32_t slot)
{
    const struct index *index = &table->claims_by_owner;
    slot = slot ? index_next(index, slot)
                : index_first(index, lock_table__fcntl_hash(table, session, owner, queue));
    for (; slot; slot = index_next(index, slot)) {
        const struct claim *claim = claim_at(table, slot);
        if (claim->session == session && claim->owner == owner &&
            lock_table__queue_of(table, claim->file) == queue)
            return slot;
    }
    return 0;
}

uint32_t lock_table__flock_of(const struct lock_table *table, uint32_t session, uint64_t handle)
{
    uint32_t slot = lock_table__claim_of(table, session, handle, 0);
    while (slot && claim_at(table, slot)->kind != CLAIM_FLOCK)
        slot = lock_table__claim_of(table, session, handle, slot);
    return slot;
}

uint32_t lock_table__older_of(const struct lock_table *table, const struct claim *request,
                              uint32_t file)
{
    if (request->kind == CLAIM_FLOCK)
        return lock_table__flock_of(table, request->session, request->handle);
    if (request->kind != CLAIM_FCNTL || !file)
        return 0;
    const struct queue *queue = lock_table__queue_of(table, file);
    uint32_t slot = 0;
    while ((slot = fcntl_of(table, request->session, request->owner, queue, slot)))
        if (claim_at(table, slot)->file == file)
            return slot;
    return 0;
}

uint32_t lock_table__claim(const struct lock_table *table, uint64_t token)
{
    uint32_t slot = index_first(&table->claims_by_token, hash_number(token));
    while (slot && claim_at(table, slot)->order != token)
        slot = index_next(&table->claims_by_token, slot);
    return slot;
}

/* Owners */

struct queue *lock_table__queue_of(const struct lock_table *table, uint32_t file)
{
    struct lock *lock = lock_at(table, file_at(table, file)->lock);
    return lock->limit ? &lock->queue : &file_at(table, file)->queue;
}

static bool is_same_owner(const struct claim *a, const struct claim *b)
{
    if (a->session != b->session || (a->kind == CLAIM_FCNTL) != (b->kind == CLAIM_FCNTL))
        return false;
    return a->kind == CLAIM_FCNTL ? a->owner == b->owner : a->handle == b->handle;
}

uint32_t lock_table__next_of_owner(const struct lock_table *table, const struct claim *who,
                                   const struct queue *queue, uint32_t slot)
{
    do
        slot = who->kind == CLAIM_FCNTL
                   ? fcntl_of(table, who->session, who->owner, queue, slot)
                   : lock_table__claim_of(table, who->session, who->handle, slot);
    while (slot && (!is_same_owner(claim_at(table, slot), who) ||
                    lock_table__queue_of(table, claim_at(table, slot)->file) != queue));
    return slot;
}

/* As what an owner counts on a resource, `without` one claim: 0 where it has no claim there. */
static uint8_t standing_without(const struct lock_table *table, const struct claim *who,
                                const struct queue *queue, uint32_t without)
{
    uint8_t mode = 0;
    uint32_t slot = 0;
    while (mode != CLAIM_EXCLUSIVE && (slot = lock_table__next_of_owner(table, who, queue, slot)))
        if (slot != without && claim_at(table, slot)->mode > mode)
            mode = claim_at(table, slot)->mode;
    return mode;
}

uint8_t lock_table__standing(const struct lock_table *table, const struct claim *who,
                             const struct queue *queue)
{
    return standing_without(table, who, queue, 0);
}

static_assert((int)CLAIM_EXCLUSIVE > (int)CLAIM_SHARED, "an owner's stronger claim counts");

void lock_table__count_owner(struct queue *queue, uint8_t before, uint8_t after)
{
    queue->exclusive_owners += (after == CLAIM_EXCLUSIVE) - (before == CLAIM_EXCLUSIVE);
    queue->shared_owners += (after == CLAIM_SHARED) - (before == CLAIM_SHARED);
}

uint32_t lock_table__places_taken(const struct queue *queue)
{
    return queue->exclusive_owners + (queue->shared_owners != 0);
}

/* Whether one is the request's own, by its handle or by its owner. */
static bool is_own(const struct claim *claim, const struct claim *request)
{
    bool both_fcntl = claim->kind == CLAIM_FCNTL && request->kind == CLAIM_FCNTL;
    return is_same_owner(claim, request) ||
           (!both_fcntl && claim->session == request->session && claim->handle == request->handle);
}

bool lock_table__is_obstacle(const struct claim *claim, uint32_t session, uint64_t handle,
                             uint64_t owner, uint8_t mode)
{
    struct claim request = {
        .session = (uint16_t)session, .handle = handle, .owner = owner, .kind = CLAIM_FCNTL};
    return !is_own(claim, &request) && (mode == CLAIM_EXCLUSIVE || claim->mode == CLAIM_EXCLUSIVE);
}

/* Whether all that an fcntl owner has on a resource came through one handle. */
static bool is_of_handle_only(const struct lock_table *table, const struct claim *who,
                              const struct queue *queue)
{
    uint32_t slot = 0;
    while ((slot = lock_table__next_of_owner(table, who, queue, slot)))
        if (claim_at(table, slot)->handle != who->handle)
            return false;
    return true;
}

/* Takes the owners that cannot stand in a request's way out of a count: its own, and those of other
 * claims of its handle. True where there is one. */
static bool leave_out_own(const struct lock_table *table, const struct queue *queue,
                          const struct claim *request, struct queue *count)
{
    uint8_t own = lock_table__standing(table, request, queue);
    bool any = own != 0;
    lock_table__count_owner(count, own, 0);
    uint32_t slot = 0;
    bool handle_counted = request->kind != CLAIM_FCNTL;
    while ((slot = lock_table__claim_of(table, request->session, request->handle, slot))) {
        const struct claim *claim = claim_at(table, slot);
        if (is_same_owner(claim, request) || !is_own(claim, request) ||
            (claim->kind != CLAIM_FCNTL && handle_counted))
            continue;
        /* An fcntl owner has one claim on this file; a handle's other claims are one owner. */
        handle_counted = handle_counted || claim->kind != CLAIM_FCNTL;
        any = true;
        if (claim->kind != CLAIM_FCNTL || is_of_handle_only(table, claim, queue))
            lock_table__count_owner(count, lock_table__standing(table, claim, queue), 0);
    }
    return any;
}

struct chance lock_table__chance_of(const struct lock_table *table, const struct queue *queue,
                                    uint32_t limit, const struct claim *request)
{
    struct queue others = *queue;
    struct chance chance;
    /* What the request replaces counts no more. */
    uint32_t older = lock_table__older_of(table, request, request->file);
    uint8_t own = standing_without(table, request, queue, older);
    chance.passes = leave_out_own(table, queue, request, &others);
    bool exclusive = request->mode == CLAIM_EXCLUSIVE || own == CLAIM_EXCLUSIVE;
    uint32_t places = others.exclusive_owners + 1 + (exclusive && others.shared_owners);
    chance.fits = places <= (limit ? limit : 1);
    return chance;
}

const struct queue *lock_table__queue_for(const struct lock_table *table, uint32_t lock,
                                          uint32_t file)
{
    static const struct queue empty;
    if (lock_at(table, lock)->limit)
        return &lock_at(table, lock)->queue;
    return file ? &file_at(table, file)->queue : &empty;
}

bool lock_table__fits(const struct lock_table *table, uint32_t lock, uint32_t file,
                      const struct claim *request)
{
    const struct queue *queue = lock_table__queue_for(table, lock, file);
    return lock_table__chance_of(table, queue, lock_at(table, lock)->limit, request).fits;
}

/* The lock table: who holds a resource, who waits for it, and who is next. */
#include <assert.h>
#include <errno.h>
#include <string.h>

#include "lock_table_internal.h"

static const size_t in_lock = offsetof(struct claim, in_lock);
static const size_t in_session = offsetof(struct claim, in_session);
static const size_t in_queue = offsetof(struct claim, in_queue);
static const size_t in_unsettled = offsetof(struct file, in_unsettled);

/* Finding claims */

static uint64_t name_hash(uint32_t session, uint64_t handle_or_owner)
{
    return hash_number(handle_or_owner ^ (uint64_t)session << 48);
}

static uint32_t next_of_handle(const struct index *index, uint32_t session, uint64_t handle,
                               uint32_t slot)
{
    slot = slot ? index_next(index, slot) : index_first(index, name_hash(session, handle));
    for (; slot; slot = index_next(index, slot)) {
        const struct claim *claim = slab_at(index->slab, slot);
        if (claim->session == session && claim->handle == handle)
            return slot;
    }
    return 0;
}

/* The next claim of a handle after `slot` (0: the first), 0 at the end. */
uint32_t lock_table__claim_of(const struct lock_table *table, uint32_t session, uint64_t handle,
                              uint32_t slot)
{
    return next_of_handle(&table->claims_by_handle, session, handle, slot);
}

static uint32_t waiter_of(const struct lock_table *table, uint32_t session, uint64_t handle,
                          uint32_t slot)
{
    return next_of_handle(&table->waiters_by_handle, session, handle, slot);
}

/* The next fcntl claim, or waiter, of an owner. */
static uint32_t next_of_fcntl(const struct index *index, uint32_t session, uint64_t owner,
                              uint32_t slot)
{
    slot = slot ? index_next(index, slot) : index_first(index, name_hash(session, owner));
    for (; slot; slot = index_next(index, slot)) {
        const struct claim *claim = slab_at(index->slab, slot);
        if (claim->session == session && claim->owner == owner)
            return slot;
    }
    return 0;
}

static uint32_t fcntl_of(const struct lock_table *table, uint32_t session, uint64_t owner,
                         uint32_t slot)
{
    return next_of_fcntl(&table->claims_by_owner, session, owner, slot);
}

static uint32_t flock_of(const struct lock_table *table, uint32_t session, uint64_t handle)
{
    uint32_t slot = lock_table__claim_of(table, session, handle, 0);
    while (slot && claim_at(table, slot)->kind != CLAIM_FLOCK)
        slot = lock_table__claim_of(table, session, handle, slot);
    return slot;
}

/* What a flock or fcntl request replaces, and 0 for a request to create. */
static uint32_t older_of(const struct lock_table *table, const struct claim *request, uint32_t file)
{
    if (request->kind == CLAIM_FLOCK)
        return flock_of(table, request->session, request->handle);
    uint32_t slot = 0;
    if (request->kind == CLAIM_FCNTL)
        while ((slot = fcntl_of(table, request->session, request->owner, slot)))
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

/* The next claim of the same owner on the same resource. */
static uint32_t next_of_owner(const struct lock_table *table, const struct claim *who,
                              const struct queue *queue, uint32_t slot)
{
    do
        slot = who->kind == CLAIM_FCNTL
                   ? fcntl_of(table, who->session, who->owner, slot)
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
    while ((slot = next_of_owner(table, who, queue, slot)))
        if (slot != without && claim_at(table, slot)->mode > mode)
            mode = claim_at(table, slot)->mode;
    return mode;
}

static uint8_t standing(const struct lock_table *table, const struct claim *who,
                        const struct queue *queue)
{
    return standing_without(table, who, queue, 0);
}

static_assert((int)CLAIM_EXCLUSIVE > (int)CLAIM_SHARED, "an owner's stronger claim counts");

static void count_owner(struct queue *queue, uint8_t before, uint8_t after)
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
    while ((slot = next_of_owner(table, who, queue, slot)))
        if (claim_at(table, slot)->handle != who->handle)
            return false;
    return true;
}

/* Takes the owners that cannot stand in a request's way out of a count: its own, and those of other
 * claims of its handle. True where there is one. */
static bool leave_out_own(const struct lock_table *table, const struct queue *queue,
                          const struct claim *request, struct queue *count)
{
    uint8_t own = standing(table, request, queue);
    bool any = own != 0;
    count_owner(count, own, 0);
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
            count_owner(count, standing(table, claim, queue), 0);
    }
    return any;
}

/* Whether a request fits beside others, and whether it may pass those who wait. */
struct chance {
    bool fits;
    bool passes;
};

static struct chance chance_of(const struct lock_table *table, const struct queue *queue,
                               uint32_t limit, const struct claim *request)
{
    struct queue others = *queue;
    struct chance chance;
    /* What the request replaces counts no more. */
    uint32_t older = older_of(table, request, request->file);
    uint8_t own = standing_without(table, request, queue, older);
    chance.passes = leave_out_own(table, queue, request, &others);
    bool exclusive = request->mode == CLAIM_EXCLUSIVE || own == CLAIM_EXCLUSIVE;
    uint32_t places = others.exclusive_owners + 1 + (exclusive && others.shared_owners);
    chance.fits = places <= (limit ? limit : 1);
    return chance;
}

/* The queue that a request for a file would meet; `file` 0: nobody else knows that name. */
static const struct queue *queue_for(const struct lock_table *table, uint32_t lock, uint32_t file)
{
    static const struct queue empty;
    if (lock_at(table, lock)->limit)
        return &lock_at(table, lock)->queue;
    return file ? &file_at(table, file)->queue : &empty;
}

bool lock_table__fits(const struct lock_table *table, uint32_t lock, uint32_t file,
                      const struct claim *request)
{
    const struct queue *queue = queue_for(table, lock, file);
    return chance_of(table, queue, lock_at(table, lock)->limit, request).fits;
}

/* Claims and waiters come and go */

static struct effect effect_of(const struct lock_table *table, enum effect_type type,
                               enum effect_cause cause, const struct claim *claim)
{
    struct effect effect = {
        .type = type,
        .cause = cause,
        .node = session_at(table, claim->session)->node,
        .handle = claim->handle,
        .seq = claim->seq,
        .token = type == EFFECT_DROPPED ? 0 : claim->order,
        .owner = claim->owner,
        .ttl_ms = claim->ttl_ms,
        .release = claim->release,
        .lock = lock_at(table, file_at(table, claim->file)->lock)->id,
        .kind = claim->kind,
        .claim_mode = claim->mode,
        .process = {.pid = claim->pid, .start = claim->process_start},
        .converted = type == EFFECT_GRANTED && claim->before,
    };
    memcpy(effect.process.comm, claim->comm, sizeof effect.process.comm);
    return effect;
}

static void emit(struct applying *applying, enum effect_type type, enum effect_cause cause,
                 const struct claim *claim, bool same_boot)
{
    struct effect effect = effect_of(applying->table, type, cause, claim);
    effect.same_boot = same_boot;
    applying->sink(applying->context, &effect);
}

/* A waiter finds that it holds already what it waits for. */
static void emit_again(struct applying *applying, const struct claim *waiter,
                       const struct claim *held)
{
    struct effect effect = effect_of(applying->table, EFFECT_GRANTED, CAUSE_NONE, held);
    effect.seq = waiter->seq;
    effect.handle = waiter->handle;
    effect.again = true;
    effect.converted = false;
    applying->sink(applying->context, &effect);
}

uint32_t lock_table__put_claim(struct lock_table *table, const struct claim *from)
{
    struct queue *queue = lock_table__queue_of(table, from->file);
    uint8_t before = standing(table, from, queue);
    uint32_t slot = slab_take(&table->claims);
    assert(slot);
    struct claim *claim = claim_at(table, slot);
    *claim = *from;
    claim->in_queue = (struct link){0, 0};

    struct file *file = file_at(table, claim->file);
    struct lock *lock = lock_at(table, file->lock);
    if (claim->kind == CLAIM_CREATE)
        file->create_claim = slot;
    lock->claims_count++;
    file->claims_count++;
    list_append(&table->claims, in_lock, &lock->claims, slot);
    list_append(&table->claims, in_session, &session_at(table, claim->session)->claims, slot);
    index_add(&table->claims_by_token, hash_number(claim->order), slot);
    index_add(&table->claims_by_handle, name_hash(claim->session, claim->handle), slot);
    if (claim->kind == CLAIM_FCNTL)
        index_add(&table->claims_by_owner, name_hash(claim->session, claim->owner), slot);
    count_owner(queue, before, standing(table, claim, queue));
    return slot;
}

/* Somebody leaves a file: see struct applying. */
static void unsettle(struct applying *applying, uint32_t slot)
{
    struct file *file = file_at(applying->table, slot);
    if (!file->unsettled)
        list_append(&applying->table->files, in_unsettled, &applying->unsettled, slot);
    file->unsettled = true;
}

/* A waiter who holds something now may pass. */
static void mark_passer(struct applying *applying, struct claim *waiter, const struct queue *queue)
{
    struct queue *own = lock_table__queue_of(applying->table, waiter->file);
    if (own != queue)
        return;
    own->passers += !waiter->passer;
    waiter->passer = true;
    unsettle(applying, waiter->file);
}

static void mark_passers(struct applying *applying, const struct claim *claim)
{
    struct lock_table *table = applying->table;
    const struct queue *queue = lock_table__queue_of(table, claim->file);
    uint32_t slot = 0;
    while ((slot = waiter_of(table, claim->session, claim->handle, slot)))
        mark_passer(applying, waiter_at(table, slot), queue);
    slot = 0;
    while (claim->kind == CLAIM_FCNTL &&
           (slot = next_of_fcntl(&table->waiters_by_owner, claim->session, claim->owner, slot)))
        mark_passer(applying, waiter_at(table, slot), queue);
}

/* Makes a claim of a request. There is room: see ACQUIRE in lock_table.h. */
static uint32_t grant(struct applying *applying, const struct claim *request)
{
    struct lock_table *table = applying->table;
    struct claim claim = *request;
    struct lock *lock = lock_at(table, file_at(table, claim.file)->lock);
    claim.order = ++table->token;
    claim.passer = false;
    claim.ttl_ms = lock->ttl_ms ? lock->ttl_ms : claim.ttl_ms;
    if (claim.kind == CLAIM_CREATE)
        claim.release = (uint8_t)lock->release;
    lock->last_token = claim.order;
    uint32_t slot = lock_table__put_claim(table, &claim);
    mark_passers(applying, claim_at(table, slot));
    return slot;
}

static void end_claim(struct applying *applying, uint32_t slot, enum effect_cause cause,
                      bool same_boot)
{
    struct lock_table *table = applying->table;
    struct claim *claim = claim_at(table, slot);
    struct claim gone = *claim;
    struct queue *queue = lock_table__queue_of(table, claim->file);
    uint8_t before = standing(table, claim, queue);
    emit(applying, EFFECT_ENDED, cause, claim, same_boot);
    unsettle(applying, claim->file);

    struct file *file = file_at(table, claim->file);
    struct lock *lock = lock_at(table, file->lock);
    lock->claims_count--;
    file->claims_count--;
    if (file->create_claim == slot)
        file->create_claim = 0;
    list_remove(&table->claims, in_lock, &lock->claims, slot);
    list_remove(&table->claims, in_session, &session_at(table, claim->session)->claims, slot);
    index_remove(&table->claims_by_token, hash_number(claim->order), slot);
    index_remove(&table->claims_by_handle, name_hash(claim->session, claim->handle), slot);
    if (claim->kind == CLAIM_FCNTL)
        index_remove(&table->claims_by_owner, name_hash(claim->session, claim->owner), slot);
    slab_give(&table->claims, slot);
    count_owner(queue, before, standing(table, &gone, queue));
}

static void remove_waiter(struct applying *applying, uint32_t slot)
{
    struct lock_table *table = applying->table;
    struct claim *waiter = waiter_at(table, slot);
    struct file *file = file_at(table, waiter->file);
    struct lock *lock = lock_at(table, file->lock);
    struct queue *queue = lock_table__queue_of(table, waiter->file);
    unsettle(applying, waiter->file);
    lock->waiters_count--;
    file->waiters_count--;
    queue->passers -= waiter->passer;
    list_remove(&table->waiters, in_queue, &queue->waiters, slot);
    list_remove(&table->waiters, in_lock, &lock->waiters, slot);
    list_remove(&table->waiters, in_session, &session_at(table, waiter->session)->waiters, slot);
    index_remove(&table->waiters_by_position, hash_number(waiter->order), slot);
    index_remove(&table->waiters_by_handle, name_hash(waiter->session, waiter->handle), slot);
    if (waiter->kind == CLAIM_FCNTL)
        index_remove(&table->waiters_by_owner, name_hash(waiter->session, waiter->owner), slot);
    slab_give(&table->waiters, slot);
}

static void drop_waiter(struct applying *applying, uint32_t slot, enum effect_cause cause)
{
    emit(applying, EFFECT_DROPPED, cause, waiter_at(applying->table, slot), false);
    remove_waiter(applying, slot);
}

void lock_table__put_waiter(struct lock_table *table, const struct claim *from)
{
    struct queue *queue = lock_table__queue_of(table, from->file);
    uint32_t slot = slab_take(&table->waiters);
    assert(slot);
    struct claim *waiter = waiter_at(table, slot);
    *waiter = *from;
    struct file *file = file_at(table, waiter->file);
    struct lock *lock = lock_at(table, file->lock);
    lock->waiters_count++;
    file->waiters_count++;
    queue->passers += waiter->passer;
    list_append(&table->waiters, in_queue, &queue->waiters, slot);
    list_append(&table->waiters, in_lock, &lock->waiters, slot);
    list_append(&table->waiters, in_session, &session_at(table, waiter->session)->waiters, slot);
    index_add(&table->waiters_by_position, hash_number(waiter->order), slot);
    index_add(&table->waiters_by_handle, name_hash(waiter->session, waiter->handle), slot);
    if (waiter->kind == CLAIM_FCNTL)
        index_add(&table->waiters_by_owner, name_hash(waiter->session, waiter->owner), slot);
}

static void enqueue(struct lock_table *table, const struct claim *request)
{
    struct claim waiter = *request;
    waiter.order = table->next_id++;
    lock_table__put_waiter(table, &waiter);
}

/* Who is next */

static uint32_t limit_of(const struct lock_table *table, uint32_t file)
{
    return lock_at(table, file_at(table, file)->lock)->limit;
}

/* The first waiter that can be granted now; 0: none. Behind a head that does not fit only those are
 * looked at that may pass it. */
static uint32_t next_in_turn(const struct lock_table *table, const struct queue *queue)
{
    bool head = true;
    if (queue->delay)
        return 0;
    for (uint32_t slot = queue->waiters.head; slot && (head || queue->passers);
         slot = waiter_at(table, slot)->in_queue.next) {
        const struct claim *waiter = waiter_at(table, slot);
        if (head || waiter->passer) {
            struct chance chance = chance_of(table, queue, limit_of(table, waiter->file), waiter);
            if (chance.fits && (head || chance.passes))
                return slot;
        }
        head = false;
    }
    return 0;
}

static void drop_ownerless_content(struct lock_table *table, uint32_t file)
{
    if (!file_at(table, file)->claims_count)
        lock_table__file_drop_content(table, file);
}

static void advance(struct applying *applying, struct queue *queue)
{
    struct lock_table *table = applying->table;
    uint32_t slot;
    while ((slot = next_in_turn(table, queue))) {
        struct claim request = *waiter_at(table, slot);
        remove_waiter(applying, slot);
        uint32_t older = older_of(table, &request, request.file);
        if (older && claim_at(table, older)->mode == request.mode) {
            emit_again(applying, &request, claim_at(table, older));
            continue;
        }
        if (older) {
            request.before = request.kind == CLAIM_FCNTL ? claim_at(table, older)->mode : 0;
            end_claim(applying, older, CAUSE_CONVERTED, false);
        }
        /* A conversion by flock is a release and a request, one by fcntl is neither. */
        if (request.kind == CLAIM_FLOCK)
            drop_ownerless_content(table, request.file);
        request.stamp_ms = applying->command->stamp_ms;
        uint32_t granted = grant(applying, &request);
        emit(applying, EFFECT_GRANTED, CAUSE_NONE, claim_at(table, granted), false);
    }
}

/* Where somebody has left: contents that belong to nobody go, then comes the next in line, then the
 * file itself goes, if nobody wants it. */
void lock_table__settle(struct applying *applying)
{
    struct lock_table *table = applying->table;
    uint32_t slot;
    for (slot = applying->unsettled.head; slot; slot = file_at(table, slot)->in_unsettled.next)
        drop_ownerless_content(table, slot);
    while ((slot = applying->unsettled.head)) {
        advance(applying, lock_table__queue_of(table, slot));
        list_remove(&table->files, in_unsettled, &applying->unsettled, slot);
        file_at(table, slot)->unsettled = false;
        lock_table__file_drop_unused(table, slot);
    }
}

void lock_table__limit_raised(struct applying *applying, uint32_t lock)
{
    /* A resource that is a file has no limit to raise. */
    if (lock_at(applying->table, lock)->limit)
        advance(applying, &lock_at(applying->table, lock)->queue);
}

/* Ending */

void lock_table__end_claim(struct applying *applying, uint32_t slot, enum effect_cause cause)
{
    end_claim(applying, slot, cause, false);
}

void lock_table__end_flock(struct applying *applying, uint64_t handle)
{
    uint32_t slot = flock_of(applying->table, applying->session, handle);
    if (slot)
        end_claim(applying, slot, CAUSE_RELEASED, false);
}

void lock_table__end_fcntl(struct applying *applying, uint64_t owner, uint32_t file)
{
    struct claim request = {
        .session = (uint16_t)applying->session, .owner = owner, .kind = CLAIM_FCNTL};
    uint32_t slot = older_of(applying->table, &request, file);
    if (slot)
        end_claim(applying, slot, CAUSE_RELEASED, false);
}

static bool ends_with_handle(const struct claim *claim)
{
    return claim->kind != CLAIM_CREATE || claim->release != RELEASE_EXIT;
}

void lock_table__end_handle(struct applying *applying, uint32_t session, uint64_t handle,
                            bool exit_too, enum effect_cause cause)
{
    struct lock_table *table = applying->table;
    uint32_t slot;
    while ((slot = waiter_of(table, session, handle, 0)))
        drop_waiter(applying, slot, cause);
    slot = lock_table__claim_of(table, session, handle, 0);
    while (slot) {
        uint32_t next = lock_table__claim_of(table, session, handle, slot);
        if (exit_too || ends_with_handle(claim_at(table, slot)))
            end_claim(applying, slot, cause, false);
        slot = next;
    }
}

/* The conversion that made an fcntl claim was given up: the weaker of both modes stays. */
static void weaken(struct applying *applying, uint32_t slot)
{
    struct lock_table *table = applying->table;
    struct claim *claim = claim_at(table, slot);
    struct queue *queue = lock_table__queue_of(table, claim->file);
    uint8_t standing_before = standing(table, claim, queue);
    if (claim->before < claim->mode)
        claim->mode = claim->before;
    claim->before = 0;
    count_owner(queue, standing_before, standing(table, claim, queue));
    unsettle(applying, claim->file);
}

bool lock_table__end_seq(struct applying *applying, uint64_t handle, uint64_t seq)
{
    struct lock_table *table = applying->table;
    uint32_t slot = 0;
    while ((slot = waiter_of(table, applying->session, handle, slot)))
        if (waiter_at(table, slot)->seq == seq) {
            drop_waiter(applying, slot, CAUSE_CANCELLED);
            return true;
        }
    while ((slot = lock_table__claim_of(table, applying->session, handle, slot)))
        if (claim_at(table, slot)->seq == seq) {
            if (claim_at(table, slot)->before)
                weaken(applying, slot);
            else
                end_claim(applying, slot, CAUSE_CANCELLED, false);
            return true;
        }
    return false;
}

uint32_t lock_table__put_delay(struct lock_table *table, const struct delay *from)
{
    uint32_t slot = slab_take(&table->delays);
    if (!slot)
        return 0;
    struct delay *delay = delay_at(table, slot);
    *delay = *from;
    struct lock *lock = lock_at(table, delay->lock);
    list_append(&table->delays, offsetof(struct delay, links), &table->delays_in_order, slot);
    (delay->file ? &file_at(table, delay->file)->queue : &lock->queue)->delay = slot;
    lock->delays_count++;
    return slot;
}

/* Returns whose it was. */
static struct queue *remove_delay(struct lock_table *table, uint32_t slot)
{
    const struct delay *delay = delay_at(table, slot);
    struct lock *lock = lock_at(table, delay->lock);
    struct queue *queue = delay->file ? &file_at(table, delay->file)->queue : &lock->queue;
    assert(queue->delay == slot);
    queue->delay = 0;
    lock->delays_count--;
    list_remove(&table->delays, offsetof(struct delay, links), &table->delays_in_order, slot);
    slab_give(&table->delays, slot);
    return queue;
}

/* Nobody is granted the resource of a claim that ends unclean for as long as its lock says. */
static void begin_delay(struct applying *applying, const struct claim *claim)
{
    struct lock_table *table = applying->table;
    uint32_t lock_slot = file_at(table, claim->file)->lock;
    struct lock *lock = lock_at(table, lock_slot);
    struct queue *queue = lock_table__queue_of(table, claim->file);
    if (!lock->delay_ms ||
        (queue->delay && delay_at(table, queue->delay)->id >= applying->first_id))
        return;
    /* Each unclean end counts in full: a delay under way gives way to the new one. */
    if (queue->delay)
        remove_delay(table, queue->delay);
    struct delay delay = {
        .id = table->next_id++,
        .stamp_ms = applying->command->stamp_ms,
        .delay_ms = lock->delay_ms,
        .lock = lock_slot,
        .file = lock->limit ? 0 : claim->file,
    };
    uint32_t slot = lock_table__put_delay(table, &delay);
    assert(slot); /* as many as resources */
    struct effect effect = {.type = EFFECT_DELAYED,
                            .node = applying->command->node,
                            .token = delay.id,
                            .lock = lock->id};
    applying->sink(applying->context, &effect);
}

void lock_table__end_session(struct applying *applying, uint32_t session, bool same_boot)
{
    const struct session *ending = session_at(applying->table, session);
    while (ending->waiters.head)
        drop_waiter(applying, ending->waiters.head, CAUSE_INCARNATION);
    while (ending->claims.head) {
        begin_delay(applying, claim_at(applying->table, ending->claims.head));
        end_claim(applying, ending->claims.head, CAUSE_INCARNATION, same_boot);
    }
}

void lock_table__end_delay(struct applying *applying, uint64_t id)
{
    struct lock_table *table = applying->table;
    uint32_t slot = table->delays_in_order.head;
    while (slot && delay_at(table, slot)->id != id)
        slot = delay_at(table, slot)->links.next;
    if (!slot)
        return;
    struct delay delay = *delay_at(table, slot);
    struct queue *queue = remove_delay(table, slot);
    if (delay.file)
        unsettle(applying, delay.file);
    else
        advance(applying, queue);
}

/* Acquiring */

/* Whether a handle holds or waits for something on another file than this one. */
static bool is_elsewhere(const struct lock_table *table, uint32_t session, uint64_t handle,
                         uint32_t file)
{
    uint32_t claim = lock_table__claim_of(table, session, handle, 0);
    uint32_t waiter = waiter_of(table, session, handle, 0);
    return (claim && claim_at(table, claim)->file != file) ||
           (waiter && waiter_at(table, waiter)->file != file);
}

static bool can_grant(const struct lock_table *table)
{
    return table->claims.used < table->limits.claims;
}

static bool can_wait(const struct lock_table *table)
{
    return table->waiters.used < table->limits.waiters &&
           table->claims.used + table->waiters.used < table->claims.capacity;
}

/* The file of a request; made where it is new. 0: no room for its name. */
static uint32_t find_or_make_file(struct lock_table *table, uint32_t lock, struct span name)
{
    uint32_t file = lock_table__file(table, lock, name);
    return file ? file : lock_table__file_make(table, lock, name);
}

static struct claim request_of(const struct applying *applying)
{
    const struct command *command = applying->command;
    struct claim request = {
        .handle = command->handle,
        .seq = command->seq,
        .owner = command->kind == CLAIM_FCNTL ? command->owner : 0,
        .process_start = command->process.start,
        .stamp_ms = command->stamp_ms,
        .pid = command->process.pid,
        .uid = command->uid,
        .ttl_ms = command->ttl_ms,
        .session = (uint16_t)applying->session,
        .kind = (uint8_t)command->kind,
        .mode = (uint8_t)command->claim_mode,
    };
    memcpy(request.comm, command->process.comm, sizeof request.comm);
    return request;
}

static struct command_result result_of(const struct claim *claim, bool again)
{
    return (struct command_result){
        .token = claim->order,
        .ttl_ms = claim->ttl_ms,
        .release = claim->release,
        .again = again,
        .converted = claim->before && !again,
    };
}

struct command_result lock_table__acquire(struct applying *applying)
{
    struct lock_table *table = applying->table;
    const struct command *command = applying->command;
    uint32_t lock = lock_table__lock(table, command->lock);
    if (!lock || lock_table__child(table, lock, command->name))
        return (struct command_result){.error = -ESTALE};
    uint32_t file = lock_table__file(table, lock, command->name);
    if (is_elsewhere(table, applying->session, command->handle, file))
        return (struct command_result){.error = -EINVAL};

    struct claim request = request_of(applying);
    uint32_t older;
    /* More than once, where another thread's wait through this handle is granted by it. */
    while ((older = older_of(table, &request, file))) {
        if (claim_at(table, older)->mode == request.mode)
            return result_of(claim_at(table, older), true);
        if (request.kind == CLAIM_FCNTL)
            break;
        end_claim(applying, older, CAUSE_CONVERTED, false);
        lock_table__settle(applying);
        file = lock_table__file(table, lock, command->name);
    }

    const struct queue *queue = queue_for(table, lock, file);
    request.file = file;
    struct chance chance = chance_of(table, queue, lock_at(table, lock)->limit, &request);
    /* What is claimed exists, and cannot be made. */
    bool exists = request.kind == CLAIM_CREATE && file && file_at(table, file)->claims_count;
    bool turn = chance.passes ? request.kind != CLAIM_CREATE : !queue->waiters.head;
    bool free = chance.fits && turn && !exists && !queue->delay;
    if (!free && (!command->wait || request.kind == CLAIM_CREATE))
        return (struct command_result){.error =
                                           request.kind == CLAIM_CREATE ? -EEXIST : -EWOULDBLOCK};
    if (!(free ? older || can_grant(table) : can_wait(table)) ||
        !(file = find_or_make_file(table, lock, command->name)))
        return (struct command_result){.error = -ENOLCK};

    request.file = file;
    request.passer = chance.passes;
    if (!free) {
        enqueue(table, &request);
        return (struct command_result){.queued = true};
    }
    if (older) {
        request.before = claim_at(table, older)->mode;
        end_claim(applying, older, CAUSE_CONVERTED, false);
    }
    uint32_t granted = grant(applying, &request);
    if (request.kind == CLAIM_CREATE) {
        struct file *made = file_at(table, file);
        made->mode = command->mode & 07777;
        made->uid = command->uid;
        made->gid = command->gid;
    }
    return result_of(claim_at(table, granted), false);
}

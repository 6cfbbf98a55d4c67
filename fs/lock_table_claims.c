/* The lock table: who holds a resource, who waits for it, and who is next. */
#include <assert.h>
#include <errno.h>
#include <string.h>

#include "lock_table_internal.h"

static const size_t in_lock = offsetof(struct claim, in_lock);
static const size_t in_session = offsetof(struct claim, in_session);
static const size_t in_queue = offsetof(struct claim, in_queue);
static const size_t in_file = offsetof(struct claim, in_file);
static const size_t in_unsettled = offsetof(struct file, in_unsettled);

/* Claims and waiters come and go */

/* `name` has LIMIT_NAME_BYTES, and lives as long as the effect. */
static struct effect effect_of(const struct lock_table *table, enum effect_type type,
                               enum effect_cause cause, const struct claim *claim, char *name)
{
    const struct file *file = file_at(table, claim->file);
    chunks_read(&table->chunks, file->name, 0, name, file->name_len);
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
        .lock = lock_at(table, file->lock)->id,
        .name = {name, file->name_len},
        .uid = claim->uid,
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
    char name[LIMIT_NAME_BYTES];
    struct effect effect = effect_of(applying->table, type, cause, claim, name);
    effect.same_boot = same_boot;
    applying->sink(applying->context, &effect);
}

/* A second request found held what the first one converted: giving up the first changes nothing any
 * more. */
static void confirm(struct claim *held)
{
    if (held->before)
        held->seq = held->before = 0;
}

/* A waiter finds that it holds already what it waits for. */
static void emit_again(struct applying *applying, const struct claim *waiter,
                       const struct claim *held)
{
    char name[LIMIT_NAME_BYTES];
    struct effect effect = effect_of(applying->table, EFFECT_GRANTED, CAUSE_NONE, held, name);
    effect.seq = waiter->seq;
    effect.handle = waiter->handle;
    effect.again = true;
    effect.converted = false;
    applying->sink(applying->context, &effect);
}

uint32_t lock_table__put_claim(struct lock_table *table, const struct claim *from)
{
    struct queue *queue = lock_table__queue_of(table, from->file);
    uint8_t before = lock_table__standing(table, from, queue);
    uint32_t slot = slab_take(&table->claims);
    assert(slot);
    struct claim *claim = claim_at(table, slot);
    *claim = *from;
    claim->in_file = (struct link){0, 0};

    struct file *file = file_at(table, claim->file);
    struct lock *lock = lock_at(table, file->lock);
    if (claim->kind == CLAIM_CREATE)
        file->create_claim = slot;
    lock->claims_count++;
    file->claims_count++;
    list_append(&table->claims, in_lock, &lock->claims, slot);
    list_append(&table->claims, in_file, &file->claims, slot);
    list_append(&table->claims, in_session, &session_at(table, claim->session)->claims, slot);
    index_add(&table->claims_by_token, hash_number(claim->order), slot);
    index_add(&table->claims_by_handle, lock_table__owner_hash(claim->session, claim->handle),
              slot);
    if (claim->kind == CLAIM_FCNTL)
        index_add(&table->claims_by_owner,
                  lock_table__fcntl_hash(table, claim->session, claim->owner, queue), slot);
    lock_table__count_owner(queue, before, lock_table__standing(table, claim, queue));
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
    while ((slot = lock_table__waiter_of(table, claim->session, claim->handle, slot)))
        mark_passer(applying, waiter_at(table, slot), queue);
    slot = 0;
    while (claim->kind == CLAIM_FCNTL &&
           (slot = lock_table__next_of_fcntl(&table->waiters_by_owner, claim->session, claim->owner,
                                             slot)))
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
    uint8_t before = lock_table__standing(table, claim, queue);
    emit(applying, EFFECT_ENDED, cause, claim, same_boot);
    unsettle(applying, claim->file);

    struct file *file = file_at(table, claim->file);
    struct lock *lock = lock_at(table, file->lock);
    lock->claims_count--;
    file->claims_count--;
    if (file->create_claim == slot)
        file->create_claim = 0;
    list_remove(&table->claims, in_lock, &lock->claims, slot);
    list_remove(&table->claims, in_file, &file->claims, slot);
    list_remove(&table->claims, in_session, &session_at(table, claim->session)->claims, slot);
    index_remove(&table->claims_by_token, hash_number(claim->order), slot);
    index_remove(&table->claims_by_handle, lock_table__owner_hash(claim->session, claim->handle),
                 slot);
    if (claim->kind == CLAIM_FCNTL)
        index_remove(&table->claims_by_owner,
                     lock_table__fcntl_hash(table, claim->session, claim->owner, queue), slot);
    claim->kind = 0;
    slab_give(&table->claims, slot);
    lock_table__count_owner(queue, before, lock_table__standing(table, &gone, queue));
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
    index_remove(&table->waiters_by_handle, lock_table__owner_hash(waiter->session, waiter->handle),
                 slot);
    if (waiter->kind == CLAIM_FCNTL)
        index_remove(&table->waiters_by_owner,
                     lock_table__owner_hash(waiter->session, waiter->owner), slot);
    waiter->kind = 0;
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
    index_add(&table->waiters_by_handle, lock_table__owner_hash(waiter->session, waiter->handle),
              slot);
    if (waiter->kind == CLAIM_FCNTL)
        index_add(&table->waiters_by_owner, lock_table__owner_hash(waiter->session, waiter->owner),
                  slot);
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
            struct chance chance =
                lock_table__chance_of(table, queue, limit_of(table, waiter->file), waiter);
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
        uint32_t older = lock_table__older_of(table, &request, request.file);
        if (older && claim_at(table, older)->mode == request.mode) {
            confirm(claim_at(table, older));
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
    uint32_t slot = lock_table__flock_of(applying->table, applying->session, handle);
    if (slot)
        end_claim(applying, slot, CAUSE_RELEASED, false);
}

void lock_table__end_fcntl(struct applying *applying, uint64_t owner, uint32_t file)
{
    struct claim request = {
        .session = (uint16_t)applying->session, .owner = owner, .kind = CLAIM_FCNTL};
    uint32_t slot = lock_table__older_of(applying->table, &request, file);
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
    while ((slot = lock_table__waiter_of(table, session, handle, 0)))
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
    uint8_t standing_before = lock_table__standing(table, claim, queue);
    if (claim->before < claim->mode)
        claim->mode = claim->before;
    claim->before = 0;
    lock_table__count_owner(queue, standing_before, lock_table__standing(table, claim, queue));
    unsettle(applying, claim->file);
}

bool lock_table__end_seq(struct applying *applying, uint64_t handle, uint64_t seq)
{
    struct lock_table *table = applying->table;
    if (!seq)
        return false; /* what was confirmed */
    uint32_t slot = 0;
    while ((slot = lock_table__waiter_of(table, applying->session, handle, slot)))
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

uint32_t lock_table__delay_by_id(const struct lock_table *table, uint64_t id)
{
    uint32_t slot = index_first(&table->delays_by_id, hash_number(id));
    while (slot && delay_at(table, slot)->id != id)
        slot = index_next(&table->delays_by_id, slot);
    return slot;
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
    index_add(&table->delays_by_id, hash_number(delay->id), slot);
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
    index_remove(&table->delays_by_id, hash_number(delay->id), slot);
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
    uint32_t slot = lock_table__delay_by_id(table, id);
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
    uint32_t waiter = lock_table__waiter_of(table, session, handle, 0);
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
    while ((older = lock_table__older_of(table, &request, file))) {
        if (claim_at(table, older)->mode == request.mode) {
            confirm(claim_at(table, older));
            return result_of(claim_at(table, older), true);
        }
        if (request.kind == CLAIM_FCNTL)
            break;
        end_claim(applying, older, CAUSE_CONVERTED, false);
        lock_table__settle(applying);
        file = lock_table__file(table, lock, command->name);
    }

    const struct queue *queue = lock_table__queue_for(table, lock, file);
    request.file = file;
    struct chance chance =
        lock_table__chance_of(table, queue, lock_at(table, lock)->limit, &request);
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

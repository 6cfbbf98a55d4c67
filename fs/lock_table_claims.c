/* The lock table: who holds a resource, who waits for it, and who is next. */
#include <assert.h>
#include <errno.h>
#include <string.h>

#include "lock_table_internal.h"

static const size_t in_lock = offsetof(struct claim, in_lock);
static const size_t in_session = offsetof(struct claim, in_session);
static const size_t in_queue = offsetof(struct claim, in_queue);
static const size_t in_unsettled = offsetof(struct file, in_unsettled);

static uint64_t owner_hash(uint32_t session, uint64_t handle)
{
    return hash_number(handle ^ (uint64_t)session << 48);
}

static uint32_t next_of_owner(const struct index *index, uint32_t session, uint64_t handle,
                              uint32_t slot)
{
    slot = slot ? index_next(index, slot) : index_first(index, owner_hash(session, handle));
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
    return next_of_owner(&table->claims_by_owner, session, handle, slot);
}

static uint32_t waiter_of(const struct lock_table *table, uint32_t session, uint64_t handle,
                          uint32_t slot)
{
    return next_of_owner(&table->waiters_by_owner, session, handle, slot);
}

static uint32_t flock_of(const struct lock_table *table, uint32_t session, uint64_t handle)
{
    uint32_t slot = lock_table__claim_of(table, session, handle, 0);
    while (slot && claim_at(table, slot)->kind != CLAIM_FLOCK)
        slot = lock_table__claim_of(table, session, handle, slot);
    return slot;
}

static struct queue *queue_of(const struct lock_table *table, uint32_t file)
{
    struct lock *lock = lock_at(table, file_at(table, file)->lock);
    return lock->limit ? &lock->queue : &file_at(table, file)->queue;
}

static uint32_t *mode_count(struct queue *queue, uint8_t mode)
{
    return mode == CLAIM_EXCLUSIVE ? &queue->exclusive_count : &queue->shared_count;
}

/* Whether a claim of this mode can stand beside all claims that other handles have. A handle's
 * claims are all on one file, hence on one resource. */
static bool fits(const struct lock_table *table, const struct queue *queue, uint32_t session,
                 uint64_t handle, uint8_t mode)
{
    uint32_t exclusive = queue->exclusive_count;
    uint32_t shared = queue->shared_count;
    uint32_t slot = 0;
    while ((slot = lock_table__claim_of(table, session, handle, slot)))
        *(claim_at(table, slot)->mode == CLAIM_EXCLUSIVE ? &exclusive : &shared) -= 1;
    return !exclusive && (mode == CLAIM_SHARED || !shared);
}

static void emit(struct applying *applying, enum effect_type type, enum effect_cause cause,
                 const struct claim *claim, bool same_boot)
{
    const struct lock_table *table = applying->table;
    struct effect effect = {
        .type = type,
        .cause = cause,
        .node = session_at(table, claim->session)->node,
        .handle = claim->handle,
        .seq = claim->seq,
        .token = type == EFFECT_DROPPED ? 0 : claim->order,
        .lock = lock_at(table, file_at(table, claim->file)->lock)->id,
        .kind = claim->kind,
        .claim_mode = claim->mode,
        .process = {.pid = claim->pid, .start = claim->process_start},
        .same_boot = same_boot,
    };
    memcpy(effect.process.comm, claim->comm, sizeof effect.process.comm);
    applying->sink(applying->context, &effect);
}

/* Makes a claim of a request. There is room: see ACQUIRE in lock_table.h. */
static uint32_t grant(struct lock_table *table, const struct claim *request)
{
    uint32_t slot = slab_take(&table->claims);
    assert(slot);
    struct claim *claim = claim_at(table, slot);
    *claim = *request;
    claim->order = ++table->token;
    claim->in_queue = (struct link){0, 0};

    struct file *file = file_at(table, claim->file);
    struct lock *lock = lock_at(table, file->lock);
    lock->last_token = claim->order;
    lock->claims_count++;
    file->claims_count++;
    if (claim->kind == CLAIM_CREATE)
        file->create_claim = slot;
    *mode_count(queue_of(table, claim->file), claim->mode) += 1;
    list_append(&table->claims, in_lock, &lock->claims, slot);
    list_append(&table->claims, in_session, &session_at(table, claim->session)->claims, slot);
    index_add(&table->claims_by_token, hash_number(claim->order), slot);
    index_add(&table->claims_by_owner, owner_hash(claim->session, claim->handle), slot);
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

static void end_claim(struct applying *applying, uint32_t slot, enum effect_cause cause,
                      bool same_boot)
{
    struct lock_table *table = applying->table;
    struct claim *claim = claim_at(table, slot);
    emit(applying, EFFECT_ENDED, cause, claim, same_boot);
    unsettle(applying, claim->file);

    struct file *file = file_at(table, claim->file);
    struct lock *lock = lock_at(table, file->lock);
    lock->claims_count--;
    file->claims_count--;
    if (file->create_claim == slot)
        file->create_claim = 0;
    *mode_count(queue_of(table, claim->file), claim->mode) -= 1;
    list_remove(&table->claims, in_lock, &lock->claims, slot);
    list_remove(&table->claims, in_session, &session_at(table, claim->session)->claims, slot);
    index_remove(&table->claims_by_token, hash_number(claim->order), slot);
    index_remove(&table->claims_by_owner, owner_hash(claim->session, claim->handle), slot);
    if (!file->claims_count)
        lock_table__file_drop_content(table, claim->file);
    slab_give(&table->claims, slot);
}

static void remove_waiter(struct applying *applying, uint32_t slot)
{
    struct lock_table *table = applying->table;
    struct claim *waiter = waiter_at(table, slot);
    struct file *file = file_at(table, waiter->file);
    struct lock *lock = lock_at(table, file->lock);
    unsettle(applying, waiter->file);
    lock->waiters_count--;
    file->waiters_count--;
    list_remove(&table->waiters, in_queue, &queue_of(table, waiter->file)->waiters, slot);
    list_remove(&table->waiters, in_lock, &lock->waiters, slot);
    list_remove(&table->waiters, in_session, &session_at(table, waiter->session)->waiters, slot);
    index_remove(&table->waiters_by_position, hash_number(waiter->order), slot);
    index_remove(&table->waiters_by_owner, owner_hash(waiter->session, waiter->handle), slot);
    slab_give(&table->waiters, slot);
}

static void drop_waiter(struct applying *applying, uint32_t slot, enum effect_cause cause)
{
    emit(applying, EFFECT_DROPPED, cause, waiter_at(applying->table, slot), false);
    remove_waiter(applying, slot);
}

/* Lets the head of the queue in, as far as it goes. */
static void advance(struct applying *applying, struct queue *queue)
{
    struct lock_table *table = applying->table;
    uint32_t slot;
    while ((slot = queue->waiters.head)) {
        struct claim request = *waiter_at(table, slot);
        if (!fits(table, queue, request.session, request.handle, request.mode))
            return;
        remove_waiter(applying, slot);
        /* Two threads may wait through one handle: the second grant converts the first. */
        uint32_t older = flock_of(table, request.session, request.handle);
        if (older)
            end_claim(applying, older, CAUSE_CONVERTED, false);
        request.stamp_ms = applying->command->stamp_ms;
        uint32_t granted = grant(table, &request);
        emit(applying, EFFECT_GRANTED, CAUSE_NONE, claim_at(table, granted), false);
    }
}

/* Where somebody has left: the next in line, then the file itself goes, if nobody wants it. */
static void settle(struct applying *applying)
{
    struct lock_table *table = applying->table;
    uint32_t slot;
    while ((slot = applying->unsettled.head)) {
        advance(applying, queue_of(table, slot));
        list_remove(&table->files, in_unsettled, &applying->unsettled, slot);
        file_at(table, slot)->unsettled = false;
        lock_table__file_drop_unused(table, slot);
    }
}

void lock_table__end_flock(struct applying *applying, uint64_t handle)
{
    uint32_t slot = flock_of(applying->table, applying->session, handle);
    if (slot)
        end_claim(applying, slot, CAUSE_RELEASED, false);
    settle(applying);
}

void lock_table__end_handle(struct applying *applying, uint64_t handle, enum effect_cause cause)
{
    struct lock_table *table = applying->table;
    uint32_t slot;
    while ((slot = waiter_of(table, applying->session, handle, 0)))
        drop_waiter(applying, slot, cause);
    while ((slot = lock_table__claim_of(table, applying->session, handle, 0)))
        end_claim(applying, slot, cause, false);
    settle(applying);
}

bool lock_table__end_seq(struct applying *applying, uint64_t handle, uint64_t seq)
{
    struct lock_table *table = applying->table;
    uint32_t slot = 0;
    while ((slot = waiter_of(table, applying->session, handle, slot)))
        if (waiter_at(table, slot)->seq == seq) {
            drop_waiter(applying, slot, CAUSE_CANCELLED);
            settle(applying);
            return true;
        }
    while ((slot = lock_table__claim_of(table, applying->session, handle, slot)))
        if (claim_at(table, slot)->seq == seq) {
            end_claim(applying, slot, CAUSE_CANCELLED, false);
            settle(applying);
            return true;
        }
    return false;
}

void lock_table__end_session(struct applying *applying, uint32_t session, bool same_boot)
{
    const struct session *ending = session_at(applying->table, session);
    while (ending->waiters.head)
        drop_waiter(applying, ending->waiters.head, CAUSE_INCARNATION);
    while (ending->claims.head)
        end_claim(applying, ending->claims.head, CAUSE_INCARNATION, same_boot);
    settle(applying);
}

static void enqueue(struct lock_table *table, struct queue *queue, const struct claim *request)
{
    uint32_t slot = slab_take(&table->waiters);
    assert(slot);
    struct claim *waiter = waiter_at(table, slot);
    *waiter = *request;
    waiter->order = table->next_id++;
    struct file *file = file_at(table, waiter->file);
    struct lock *lock = lock_at(table, file->lock);
    lock->waiters_count++;
    file->waiters_count++;
    list_append(&table->waiters, in_queue, &queue->waiters, slot);
    list_append(&table->waiters, in_lock, &lock->waiters, slot);
    list_append(&table->waiters, in_session, &session_at(table, waiter->session)->waiters, slot);
    index_add(&table->waiters_by_position, hash_number(waiter->order), slot);
    index_add(&table->waiters_by_owner, owner_hash(waiter->session, waiter->handle), slot);
}

/* The file of a request; made where it is new. 0: no room for its name. */
static uint32_t find_or_make_file(struct lock_table *table, uint32_t lock, struct span name)
{
    uint32_t file = lock_table__file(table, lock, name);
    return file ? file : lock_table__file_make(table, lock, name);
}

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

struct command_result lock_table__acquire(struct applying *applying)
{
    struct lock_table *table = applying->table;
    const struct command *command = applying->command;
    uint32_t session = applying->session;
    uint32_t lock = lock_table__lock(table, command->lock);
    if (!lock || lock_table__child(table, lock, command->name))
        return (struct command_result){.error = -ESTALE};

    uint32_t file = lock_table__file(table, lock, command->name);
    if (is_elsewhere(table, session, command->handle, file))
        return (struct command_result){.error = -EINVAL};

    /* More than once, where another thread's wait through this handle is granted by it. */
    uint32_t older;
    while (command->kind == CLAIM_FLOCK && (older = flock_of(table, session, command->handle))) {
        if (claim_at(table, older)->mode == command->claim_mode)
            return (struct command_result){.token = claim_at(table, older)->order};
        end_claim(applying, older, CAUSE_CONVERTED, false);
        settle(applying);
    }

    file = lock_table__file(table, lock, command->name);
    static const struct queue empty;
    const struct queue *queue = lock_at(table, lock)->limit ? &lock_at(table, lock)->queue
                                : file                      ? &file_at(table, file)->queue
                                                            : &empty;
    bool holds = lock_table__claim_of(table, session, command->handle, 0) != 0;
    /* A claim by creating is never re-entrant; a flock passes those who wait for its own handle. */
    bool next = holds ? command->kind == CLAIM_FLOCK : !queue->waiters.head;
    bool free = next && fits(table, queue, session, command->handle, (uint8_t)command->claim_mode);
    if (!free && (!command->wait || command->kind == CLAIM_CREATE))
        return (struct command_result){.error =
                                           command->kind == CLAIM_CREATE ? -EEXIST : -EWOULDBLOCK};
    if (!(free ? can_grant(table) : can_wait(table)) ||
        !(file = find_or_make_file(table, lock, command->name)))
        return (struct command_result){.error = -ENOLCK};

    struct claim request = {
        .handle = command->handle,
        .seq = command->seq,
        .process_start = command->process.start,
        .stamp_ms = command->stamp_ms,
        .file = file,
        .pid = command->process.pid,
        .uid = command->uid,
        .ttl_ms = command->ttl_ms,
        .session = (uint16_t)session,
        .kind = (uint8_t)command->kind,
        .mode = (uint8_t)command->claim_mode,
    };
    memcpy(request.comm, command->process.comm, sizeof request.comm);
    if (!free) {
        enqueue(table, queue_of(table, file), &request);
        return (struct command_result){.queued = true};
    }
    uint32_t granted = grant(table, &request);
    if (command->kind == CLAIM_CREATE) {
        struct file *made = file_at(table, file);
        made->mode = command->mode & 07777;
        made->uid = command->uid;
        made->gid = command->gid;
    }
    return (struct command_result){.token = claim_at(table, granted)->order};
}

/* The lock table: its memory, and each command's effect on locks and sessions. */
#include "lock_table.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "lock_table_internal.h"

const struct lock_table_limits lock_table_limits_default = {
    .locks = LIMIT_LOCKS,
    .claims = LIMIT_CLAIMS,
    .waiters = LIMIT_WAITERS,
    .sessions = LIMIT_SESSIONS,
    .names_bytes = LIMIT_NAMES_BYTES,
    .contents_bytes = LIMIT_CONTENTS_BYTES,
};

static void lay_out(struct lock_table *table, struct arena *arena,
                    const struct lock_table_limits *limits)
{
    *table = (struct lock_table){.limits = *limits};

    /* Any waiter can become a claim, see ACQUIRE. */
    uint32_t claims_capacity = limits->claims + limits->waiters;
    uint32_t files_capacity = claims_capacity + limits->waiters;
    uint64_t strings = (uint64_t)limits->locks + 2 * (uint64_t)files_capacity;
    uint64_t string_bytes = limits->names_bytes + limits->contents_bytes;

    slab_layout(&table->locks, arena, sizeof(struct lock), limits->locks);
    slab_layout(&table->files, arena, sizeof(struct file), files_capacity);
    slab_layout(&table->claims, arena, sizeof(struct claim), claims_capacity);
    slab_layout(&table->waiters, arena, sizeof(struct claim), limits->waiters);
    slab_layout(&table->sessions, arena, sizeof(struct session), limits->sessions);
    slab_layout(&table->delays, arena, sizeof(struct delay), limits->locks + files_capacity);
    chunks_layout(&table->chunks, arena, strings + string_bytes / CHUNK_DATA_BYTES);

    index_layout(&table->locks_by_id, arena, &table->locks, offsetof(struct lock, by_id));
    index_layout(&table->locks_by_name, arena, &table->locks, offsetof(struct lock, by_name));
    index_layout(&table->files_by_id, arena, &table->files, offsetof(struct file, by_id));
    index_layout(&table->files_by_name, arena, &table->files, offsetof(struct file, by_name));
    index_layout(&table->claims_by_token, arena, &table->claims, offsetof(struct claim, by_order));
    index_layout(&table->claims_by_handle, arena, &table->claims,
                 offsetof(struct claim, by_handle));
    index_layout(&table->claims_by_owner, arena, &table->claims, offsetof(struct claim, by_owner));
    index_layout(&table->waiters_by_position, arena, &table->waiters,
                 offsetof(struct claim, by_order));
    index_layout(&table->waiters_by_handle, arena, &table->waiters,
                 offsetof(struct claim, by_handle));
    index_layout(&table->waiters_by_owner, arena, &table->waiters,
                 offsetof(struct claim, by_owner));
    index_layout(&table->delays_by_id, arena, &table->delays, offsetof(struct delay, by_id));
    table->marks = arena_take(arena, ((size_t)claims_capacity / 64 + 1) * sizeof *table->marks);
}

size_t lock_table_size(const struct lock_table_limits *limits)
{
    struct arena arena = {NULL, 0};
    struct lock_table scratch;
    arena_take(&arena, sizeof scratch);
    lay_out(&scratch, &arena, limits);
    return arena.used;
}

struct lock_table *lock_table_init(void *memory, const struct lock_table_limits *limits)
{
    assert(limits->locks >= 1 && limits->sessions >= 1 && limits->sessions <= UINT16_MAX);
    struct arena arena = {memory, 0};
    struct lock_table *table = arena_take(&arena, sizeof *table);
    lay_out(table, &arena, limits);

    uint32_t slot = slab_take(&table->locks);
    *lock_at(table, slot) =
        (struct lock){.id = LOCK_TABLE_ROOT, .mode = 01777, .limit = 0, .release = RELEASE_CLOSE};
    index_add(&table->locks_by_id, hash_number(LOCK_TABLE_ROOT), slot);
    table->next_id = LOCK_TABLE_ROOT + 1;
    return table;
}

enum { INDEXES = 11 };

void lock_table_clear(struct lock_table *table)
{
    const struct lock_table_limits limits = table->limits;
    struct index *indexes[INDEXES] = {
        &table->locks_by_id,      &table->locks_by_name,       &table->files_by_id,
        &table->files_by_name,    &table->claims_by_token,     &table->claims_by_handle,
        &table->claims_by_owner,  &table->waiters_by_position, &table->waiters_by_handle,
        &table->waiters_by_owner, &table->delays_by_id,
    };
    for (size_t i = 0; i < INDEXES; i++)
        index_clear(indexes[i]);
    lock_table_init(table, &limits);
}

uint32_t lock_table__lock(const struct lock_table *table, uint64_t id)
{
    uint32_t slot = index_first(&table->locks_by_id, hash_number(id));
    while (slot && lock_at(table, slot)->id != id)
        slot = index_next(&table->locks_by_id, slot);
    return slot;
}

static uint64_t child_hash(const struct lock_table *table, uint32_t parent, struct span name)
{
    return hash_bytes(lock_at(table, parent)->id, name.data, name.len);
}

uint32_t lock_table__child(const struct lock_table *table, uint32_t parent, struct span name)
{
    uint32_t slot = index_first(&table->locks_by_name, child_hash(table, parent, name));
    for (; slot; slot = index_next(&table->locks_by_name, slot)) {
        const struct lock *lock = lock_at(table, slot);
        if (lock->parent == parent &&
            chunks_equal(&table->chunks, lock->name, lock->name_len, name))
            return slot;
    }
    return 0;
}

uint32_t lock_table__session(const struct lock_table *table, uint64_t node)
{
    for (uint32_t slot = 1; slot <= table->sessions.touched; slot++)
        if (session_at(table, slot)->node == node)
            return slot;
    return 0;
}

static int apply_incarnation(struct applying *applying)
{
    struct lock_table *table = applying->table;
    const struct command *command = applying->command;
    uint32_t slot = lock_table__session(table, command->node);
    if (command->replaces != (slot ? session_at(table, slot)->incarnation : 0))
        return -ESTALE;
    if (!slot) {
        slot = slab_take(&table->sessions);
        if (!slot)
            return -ENOSPC;
        session_at(table, slot)->node = command->node;
    }

    struct session *session = session_at(table, slot);
    bool same_boot = memcmp(session->boot_id, command->boot_id, BOOT_ID_BYTES) == 0;
    session->incarnation = command->incarnation;
    session->seq = 0;
    memcpy(session->boot_id, command->boot_id, BOOT_ID_BYTES);
    lock_table__end_session(applying, slot, same_boot);
    return 0;
}

void lock_table__add_lock(struct lock_table *table, uint32_t slot, struct span name)
{
    const struct lock *lock = lock_at(table, slot);
    struct lock *parent = lock_at(table, lock->parent);
    index_add(&table->locks_by_id, hash_number(lock->id), slot);
    index_add(&table->locks_by_name, child_hash(table, lock->parent, name), slot);
    list_append(&table->locks, offsetof(struct lock, siblings), &parent->locks, slot);
    parent->locks_count++;
}

static struct command_result apply_mkdir(struct applying *applying)
{
    struct lock_table *table = applying->table;
    const struct command *command = applying->command;
    uint32_t parent = lock_table__lock(table, command->lock);
    if (!parent)
        return (struct command_result){.error = -ESTALE};
    if (lock_table__child(table, parent, command->name) ||
        lock_table__file(table, parent, command->name))
        return (struct command_result){.error = -EEXIST};
    uint32_t depth = lock_at(table, parent)->depth + 1;
    if (depth > LIMIT_DEPTH)
        return (struct command_result){.error = -ENAMETOOLONG};
    uint32_t name;
    if (table->locks.used == table->limits.locks ||
        !lock_table__name_take(table, command->name, &name))
        return (struct command_result){.error = -ENOSPC};

    uint32_t slot = slab_take(&table->locks);
    struct lock *lock = lock_at(table, slot);
    *lock = (struct lock){
        .id = table->next_id++,
        .parent = parent,
        .depth = depth,
        .name = name,
        .name_len = (uint32_t)command->name.len,
        .mode = command->mode & 07777,
        .uid = command->uid,
        .gid = command->gid,
        .limit = 1,
        .release = RELEASE_CLOSE,
        .stamp_ms = command->stamp_ms,
        .maker_incarnation = command->incarnation,
        .maker_seq = command->seq,
    };
    lock_table__add_lock(table, slot, command->name);
    lock_at(table, parent)->stamp_ms = command->stamp_ms;
    return (struct command_result){.lock = lock->id};
}

static bool lock_is_empty(const struct lock *lock)
{
    return !lock->locks_count && !lock->claims_count && !lock->waiters_count && !lock->delays_count;
}

static void remove_lock(struct lock_table *table, uint32_t slot, const struct command *command)
{
    struct lock *lock = lock_at(table, slot);
    assert(lock_is_empty(lock) && lock->parent);
    struct lock *parent = lock_at(table, lock->parent);
    index_remove(&table->locks_by_id, hash_number(lock->id), slot);
    index_remove(&table->locks_by_name, child_hash(table, lock->parent, command->name), slot);
    list_remove(&table->locks, offsetof(struct lock, siblings), &parent->locks, slot);
    parent->locks_count--;
    parent->stamp_ms = command->stamp_ms;
    lock_table__name_give(table, &lock->name, lock->name_len);
    slab_give(&table->locks, slot);
}

static int apply_rmdir(struct applying *applying)
{
    struct lock_table *table = applying->table;
    const struct command *command = applying->command;
    uint32_t parent = lock_table__lock(table, command->lock);
    if (!parent)
        return -ESTALE;
    uint32_t slot = lock_table__child(table, parent, command->name);
    if (!slot)
        return -ENOENT;
    if (!lock_is_empty(lock_at(table, slot)))
        return -ENOTEMPTY;
    remove_lock(table, slot, command);
    return 0;
}

static int apply_unlink(struct applying *applying)
{
    struct lock_table *table = applying->table;
    const struct command *command = applying->command;
    uint32_t lock = lock_table__lock(table, command->lock);
    uint32_t file = lock ? lock_table__file(table, lock, command->name) : 0;
    uint32_t slot = file ? file_at(table, file)->create_claim : 0;
    if (!slot || claim_at(table, slot)->order != command->token)
        return -ENOENT;
    const struct claim *claim = claim_at(table, slot);
    if (claim->session != applying->session)
        return -EBUSY;
    lock_table__end_handle(applying, claim->session, claim->handle, true, CAUSE_UNLINKED);
    return 0;
}

static int apply_cancel(struct applying *applying)
{
    struct lock_table *table = applying->table;
    const struct command *command = applying->command;
    if (lock_table__end_seq(applying, command->handle, command->target))
        return 0;
    uint32_t parent = lock_table__lock(table, command->lock);
    uint32_t slot = parent ? lock_table__child(table, parent, command->name) : 0;
    if (!slot)
        return 0;
    const struct lock *lock = lock_at(table, slot);
    if (lock->maker_incarnation == command->incarnation && lock->maker_seq == command->target &&
        lock_is_empty(lock) && !lock->last_token)
        remove_lock(table, slot, command);
    return 0;
}

static int apply_content(struct applying *applying)
{
    struct lock_table *table = applying->table;
    const struct command *command = applying->command;
    uint32_t slot = lock_table__claim_of(table, applying->session, command->handle, 0);
    if (!slot)
        return -EPERM;
    uint32_t file = claim_at(table, slot)->file;
    if (command->type == COMMAND_TRUNCATE)
        return lock_table__content_resize(table, file, command->offset);

    uint32_t len = file_at(table, file)->content_len;
    uint64_t offset = command->append ? len : command->offset;
    if (offset > LIMIT_CONTENT_BYTES || command->data.len > LIMIT_CONTENT_BYTES - offset)
        return -EFBIG;
    uint64_t end = offset + command->data.len;
    if (command->data.len && end > len) {
        int error = lock_table__content_resize(table, file, end);
        if (error)
            return error;
    }
    chunks_write(&table->chunks, file_at(table, file)->content, (size_t)offset, command->data);
    return 0;
}

static void set_attributes(const struct command *command, uint32_t *mode, uint32_t *uid,
                           uint32_t *gid)
{
    if (command->attributes & ATTRIBUTE_MODE)
        *mode = command->mode & 07777;
    if (command->attributes & ATTRIBUTE_UID)
        *uid = command->uid;
    if (command->attributes & ATTRIBUTE_GID)
        *gid = command->gid;
}

/* Whether what is held, waited for and delayed can live under a new limit. */
static bool limit_is_possible(const struct lock *lock, uint32_t limit)
{
    if (limit > LIMIT_CLAIMS)
        return false;
    if (!lock->limit != !limit)
        return !lock->claims_count && !lock->waiters_count && !lock->delays_count;
    return !limit || limit >= lock_table__places_taken(&lock->queue);
}

static int apply_set_lock(struct applying *applying)
{
    const struct command *command = applying->command;
    uint32_t slot = lock_table__lock(applying->table, command->lock);
    if (!slot)
        return -ESTALE;
    struct lock *lock = lock_at(applying->table, slot);
    if ((command->attributes & ATTRIBUTE_LIMIT) && !limit_is_possible(lock, command->limit))
        return -EINVAL;
    if ((command->attributes & ATTRIBUTE_RELEASE) && command->release != RELEASE_CLOSE &&
        command->release != RELEASE_EXIT)
        return -EINVAL;

    set_attributes(command, &lock->mode, &lock->uid, &lock->gid);
    if (command->attributes & ATTRIBUTE_TTL)
        lock->ttl_ms = command->ttl_ms;
    if (command->attributes & ATTRIBUTE_RELEASE)
        lock->release = command->release;
    if (command->attributes & ATTRIBUTE_DELAY)
        lock->delay_ms = command->delay_ms;
    if (command->attributes & ATTRIBUTE_LIMIT) {
        lock->limit = command->limit;
        lock_table__limit_raised(applying, slot);
    }
    return 0;
}

static int apply_unlock(struct applying *applying)
{
    const struct command *command = applying->command;
    if (command->kind != CLAIM_FCNTL) {
        lock_table__end_flock(applying, command->handle);
        return 0;
    }
    uint32_t lock = lock_table__lock(applying->table, command->lock);
    uint32_t file = lock ? lock_table__file(applying->table, lock, command->name) : 0;
    if (file)
        lock_table__end_fcntl(applying, command->owner, file);
    return 0;
}

static int apply_end(struct applying *applying)
{
    uint32_t slot = lock_table__claim(applying->table, applying->command->token);
    if (slot && claim_at(applying->table, slot)->session == applying->session)
        lock_table__end_claim(applying, slot, CAUSE_EXITED);
    return 0;
}

/* The first claim of a file up to `token_max`; `token` only, unless that is 0. */
static uint32_t find_on_file(const struct lock_table *table, uint32_t lock, uint32_t file,
                             uint64_t token, uint64_t token_max)
{
    uint32_t slot = lock_at(table, lock)->claims.head;
    for (; slot; slot = claim_at(table, slot)->in_lock.next) {
        const struct claim *claim = claim_at(table, slot);
        if (claim->order > token_max)
            return 0;
        if (claim->file == file && (!token || claim->order == token))
            return slot;
    }
    return 0;
}

static int apply_force(struct applying *applying)
{
    struct lock_table *table = applying->table;
    const struct command *command = applying->command;
    uint32_t lock = lock_table__lock(table, command->lock);
    uint32_t file = lock ? lock_table__file(table, lock, command->name) : 0;
    uint32_t slot;
    int error = -ENODATA;
    while (file && (slot = find_on_file(table, lock, file, command->token, table->token))) {
        const struct claim *claim = claim_at(table, slot);
        lock_table__end_handle(applying, claim->session, claim->handle, true, CAUSE_FORCED);
        error = 0;
    }
    return error;
}

static int apply_set_claim(struct applying *applying)
{
    struct lock_table *table = applying->table;
    const struct command *command = applying->command;
    uint32_t lock = lock_table__lock(table, command->lock);
    uint32_t slot = lock ? lock_table__file(table, lock, command->name) : 0;
    if (!slot)
        return -EPERM;
    struct file *file = file_at(table, slot);
    if (!file->create_claim || claim_at(table, file->create_claim)->order != command->token)
        return -EPERM;
    set_attributes(command, &file->mode, &file->uid, &file->gid);
    return 0;
}

static struct command_result dispatch(struct applying *applying)
{
    const struct command *command = applying->command;
    struct command_result result = {0};
    switch (command->type) {
    case COMMAND_INCARNATION:
        result.error = apply_incarnation(applying);
        break;
    case COMMAND_MKDIR:
        return apply_mkdir(applying);
    case COMMAND_RMDIR:
        result.error = apply_rmdir(applying);
        break;
    case COMMAND_ACQUIRE:
        return lock_table__acquire(applying);
    case COMMAND_RELEASE:
        lock_table__end_handle(applying, applying->session, command->handle, false, CAUSE_RELEASED);
        break;
    case COMMAND_UNLOCK:
        result.error = apply_unlock(applying);
        break;
    case COMMAND_UNLINK:
        result.error = apply_unlink(applying);
        break;
    case COMMAND_CANCEL:
        result.error = apply_cancel(applying);
        break;
    case COMMAND_WRITE:
    case COMMAND_TRUNCATE:
        result.error = apply_content(applying);
        break;
    case COMMAND_SET_LOCK:
        result.error = apply_set_lock(applying);
        break;
    case COMMAND_SET_CLAIM:
        result.error = apply_set_claim(applying);
        break;
    case COMMAND_END:
        result.error = apply_end(applying);
        break;
    case COMMAND_FORCE:
        result.error = apply_force(applying);
        break;
    case COMMAND_END_DELAY:
        lock_table__end_delay(applying, command->target);
        break;
    }
    return result;
}

/* Whether the sender is who its node is now, and this is its next command. */
static int check_session(struct applying *applying)
{
    const struct command *command = applying->command;
    applying->session = lock_table__session(applying->table, command->node);
    if (command->type == COMMAND_INCARNATION)
        return 0;
    if (!applying->session)
        return -ESTALE;
    struct session *session = session_at(applying->table, applying->session);
    if (session->incarnation != command->incarnation)
        return -ESTALE;
    if (command->seq != session->seq + 1)
        return -EPROTO;
    session->seq = command->seq;
    return 0;
}

void lock_table_apply_in_order(struct lock_table *table, const struct command *command,
                               result_sink *tell_result, effect_sink *sink, void *context)
{
    struct applying applying = {.table = table,
                                .command = command,
                                .sink = sink,
                                .context = context,
                                .first_id = table->next_id};
    struct command_result result = {.error = check_session(&applying)};
    if (!result.error)
        result = dispatch(&applying);
    tell_result(context, &result);
    lock_table__settle(&applying);
}

/* What lock_table_apply() wants to know. */
struct told {
    struct command_result result;
    effect_sink *sink;
    void *context;
};

static void keep_result(void *context, const struct command_result *result)
{
    ((struct told *)context)->result = *result;
}

static void pass_effect(void *context, const struct effect *effect)
{
    const struct told *told = context;
    told->sink(told->context, effect);
}

struct command_result lock_table_apply(struct lock_table *table, const struct command *command,
                                       effect_sink *sink, void *context)
{
    struct told told = {.sink = sink, .context = context};
    lock_table_apply_in_order(table, command, keep_result, pass_effect, &told);
    return told.result;
}

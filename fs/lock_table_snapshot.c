/*
 * The lock table as a sequence of records (SnapshotRecord of lockfs.proto), and back.
 *
 * The order of the records is that in which things came to be, so that a table that is filled in
 * this order hangs together as the first one did: every later command does the same to both. It
 * does not depend on slots.
 *
 * Restoring checks all that the table's assertions rely on. Whether claims may stand beside each
 * other is not checked: nothing here relies on it.
 */
#include <assert.h>
#include <string.h>

#include <pb_decode.h>
#include <pb_encode.h>

#include "lock_table_internal.h"
#include "lockfs.pb.h"

static_assert(sizeof(((lockfs_SnapshotLock *)0)->name.bytes) >= LIMIT_NAME_BYTES, "lockfs.options");
static_assert(sizeof(((lockfs_SnapshotFile *)0)->name.bytes) >= LIMIT_NAME_BYTES, "lockfs.options");
static_assert(sizeof(((lockfs_SnapshotFile *)0)->content.bytes) >= LIMIT_CONTENT_BYTES,
              "lockfs.options");
static_assert(sizeof(((lockfs_SnapshotClaim *)0)->comm.bytes) == LIMIT_COMM_BYTES,
              "lockfs.options");
static_assert(sizeof(((lockfs_SnapshotSession *)0)->boot_id.bytes) == BOOT_ID_BYTES,
              "lockfs.options");
static_assert(lockfs_SnapshotRecord_size <= LIMIT_SNAPSHOT_RECORD_BYTES, "every record fits");

/* What a record takes in the file, names and contents apart, at most. */
enum {
    EXTRA_BYTES =
        lockfs_SnapshotRecord_size - lockfs_SnapshotFile_size + LIMIT_SNAPSHOT_FRAME_BYTES,
    TABLE_BYTES = lockfs_SnapshotTable_size + EXTRA_BYTES,
    SESSION_BYTES = lockfs_SnapshotSession_size + EXTRA_BYTES,
    LOCK_BYTES = lockfs_SnapshotLock_size - LIMIT_NAME_BYTES + EXTRA_BYTES,
    FILE_BYTES = lockfs_SnapshotFile_size - LIMIT_NAME_BYTES - LIMIT_CONTENT_BYTES + EXTRA_BYTES,
    CLAIM_BYTES = lockfs_SnapshotClaim_size + EXTRA_BYTES,
    DELAY_BYTES = lockfs_SnapshotDelay_size + EXTRA_BYTES,
};

static_assert((int)CLAIM_BYTES + (int)FILE_BYTES + (int)LIMIT_NAME_BYTES <=
                      (int)LIMIT_SNAPSHOT_GROWTH_BYTES &&
                  (int)LOCK_BYTES + (int)LIMIT_NAME_BYTES <= (int)LIMIT_SNAPSHOT_GROWTH_BYTES &&
                  (int)LIMIT_CONTENT_BYTES <= (int)LIMIT_SNAPSHOT_GROWTH_BYTES,
              "see lock_table_snapshot_growth()");

/* The parts of a snapshot, in their order. */
enum part {
    PART_TABLE = lockfs_SnapshotRecord_table_tag,
    PART_SESSIONS = lockfs_SnapshotRecord_session_tag,
    PART_LOCKS = lockfs_SnapshotRecord_lock_tag,
    PART_FILES = lockfs_SnapshotRecord_file_tag,
    PART_CLAIMS = lockfs_SnapshotRecord_claim_tag,
    PART_WAITERS = lockfs_SnapshotRecord_waiter_tag,
    PART_DELAYS = lockfs_SnapshotRecord_delay_tag,
    PART_END,
};

/* Saving */

static void save_table(const struct lock_table *table, lockfs_SnapshotTable *ret_message)
{
    ret_message->token = table->token;
    ret_message->next_id = table->next_id;
    ret_message->sessions = table->sessions.used;
    ret_message->locks = table->locks.used;
    ret_message->files = table->files.used;
    ret_message->claims = table->claims.used;
    ret_message->waiters = table->waiters.used;
    ret_message->delays = table->delays.used;
}

static void save_session(const struct session *session, lockfs_SnapshotSession *ret_message)
{
    ret_message->node = session->node;
    ret_message->incarnation = session->incarnation;
    ret_message->seq = session->seq;
    ret_message->boot_id.size = BOOT_ID_BYTES;
    memcpy(ret_message->boot_id.bytes, session->boot_id, BOOT_ID_BYTES);
}

static void save_lock(const struct lock_table *table, const struct lock *lock,
                      lockfs_SnapshotLock *ret_message)
{
    ret_message->id = lock->id;
    ret_message->parent = lock->parent ? lock_at(table, lock->parent)->id : 0;
    ret_message->name.size = (pb_size_t)lock->name_len;
    chunks_read(&table->chunks, lock->name, 0, (char *)ret_message->name.bytes, lock->name_len);
    ret_message->mode = lock->mode;
    ret_message->uid = lock->uid;
    ret_message->gid = lock->gid;
    ret_message->limit = lock->limit;
    ret_message->ttl_ms = lock->ttl_ms;
    ret_message->release = lock->release;
    ret_message->delay_ms = lock->delay_ms;
    ret_message->last_token = lock->last_token;
    ret_message->stamp_ms = (uint64_t)lock->stamp_ms;
    ret_message->maker_incarnation = lock->maker_incarnation;
    ret_message->maker_seq = lock->maker_seq;
}

static void save_file(const struct lock_table *table, const struct file *file,
                      lockfs_SnapshotFile *ret_message)
{
    ret_message->id = file->id;
    ret_message->lock = lock_at(table, file->lock)->id;
    ret_message->name.size = (pb_size_t)file->name_len;
    chunks_read(&table->chunks, file->name, 0, (char *)ret_message->name.bytes, file->name_len);
    ret_message->mode = file->mode;
    ret_message->uid = file->uid;
    ret_message->gid = file->gid;
    ret_message->content.size = (pb_size_t)file->content_len;
    chunks_read(&table->chunks, file->content, 0, (char *)ret_message->content.bytes,
                file->content_len);
}

static void save_claim(const struct lock_table *table, const struct claim *claim,
                       lockfs_SnapshotClaim *ret_message)
{
    ret_message->order = claim->order;
    ret_message->file = file_at(table, claim->file)->id;
    ret_message->node = session_at(table, claim->session)->node;
    ret_message->handle = claim->handle;
    ret_message->seq = claim->seq;
    ret_message->kind = claim->kind;
    ret_message->mode = claim->mode;
    ret_message->owner = claim->owner;
    ret_message->ttl_ms = claim->ttl_ms;
    ret_message->release = claim->release;
    ret_message->passer = claim->passer;
    ret_message->before = claim->before;
    ret_message->uid = claim->uid;
    ret_message->pid = claim->pid;
    ret_message->process_start = claim->process_start;
    ret_message->stamp_ms = (uint64_t)claim->stamp_ms;
    ret_message->comm.size = 0;
    while (ret_message->comm.size < LIMIT_COMM_BYTES && claim->comm[ret_message->comm.size])
        ret_message->comm.size++;
    memcpy(ret_message->comm.bytes, claim->comm, ret_message->comm.size);
}

/* Whether its file belongs to a claim. */
static bool is_creator(const struct lock_table *table, uint32_t claim)
{
    return file_at(table, claim_at(table, claim)->file)->create_claim == claim;
}

static void save_delay(const struct lock_table *table, const struct delay *delay,
                       lockfs_SnapshotDelay *ret_message)
{
    ret_message->id = delay->id;
    ret_message->lock = lock_at(table, delay->lock)->id;
    ret_message->file = delay->file ? file_at(table, delay->file)->id : 0;
    ret_message->delay_ms = delay->delay_ms;
    ret_message->stamp_ms = (uint64_t)delay->stamp_ms;
}

/* The next lock after cursor->slot, 0 at the end. */
static uint32_t next_lock(const struct lock_table *table, struct lock_table_cursor *cursor)
{
    cursor->slot = cursor->slot ? lock_table__walk(table, cursor->slot)
                                : lock_table__lock(table, LOCK_TABLE_ROOT);
    return cursor->slot;
}

/* The files of one lock after those of another, locks in the order of their walk. */
static uint32_t next_file(const struct lock_table *table, struct lock_table_cursor *cursor)
{
    if (!cursor->lock)
        cursor->lock = lock_table__lock(table, LOCK_TABLE_ROOT);
    cursor->slot = cursor->slot ? file_at(table, cursor->slot)->siblings.next
                                : lock_at(table, cursor->lock)->files.head;
    while (!cursor->slot && (cursor->lock = lock_table__walk(table, cursor->lock)))
        cursor->slot = lock_at(table, cursor->lock)->files.head;
    return cursor->slot;
}

static uint32_t head_of(const struct session *session, bool waits)
{
    return waits ? session->waiters.head : session->claims.head;
}

/* All claims, or all waiters, in their order: each session's are in order, and merged here. */
static uint32_t next_claim(const struct lock_table *table, struct lock_table_cursor *cursor,
                           bool waits)
{
    const struct slab *slab = waits ? &table->waiters : &table->claims;
    uint32_t best = 0;

    assert(table->sessions.touched <= LIMIT_SESSIONS);
    if (!cursor->slot)
        for (uint32_t i = 0; i < table->sessions.touched; i++)
            cursor->heads[i] = head_of(session_at(table, i + 1), waits);
    for (uint32_t i = 0; i < table->sessions.touched; i++) {
        const struct claim *claim = slab_at(slab, cursor->heads[i]);
        if (cursor->heads[i] &&
            (!best || claim->order < ((struct claim *)slab_at(slab, best))->order))
            best = cursor->heads[i];
    }
    if (best) {
        const struct claim *claim = slab_at(slab, best);
        cursor->heads[claim->session - 1] = claim->in_session.next;
    }
    cursor->slot = best;
    return best;
}

/* Fills in the next record of the cursor's part. False where there is none (any more). */
static bool save_next(const struct lock_table *table, struct lock_table_cursor *cursor,
                      lockfs_SnapshotRecord *ret_record)
{
    uint32_t slot;
    switch ((enum part)cursor->part) {
    case PART_TABLE:
        if (cursor->slot++)
            return false;
        save_table(table, &ret_record->record.table);
        return true;
    case PART_SESSIONS:
        if (cursor->slot == table->sessions.touched)
            return false;
        save_session(session_at(table, ++cursor->slot), &ret_record->record.session);
        return true;
    case PART_LOCKS:
        if (!(slot = next_lock(table, cursor)))
            return false;
        save_lock(table, lock_at(table, slot), &ret_record->record.lock);
        return true;
    case PART_FILES:
        if (!(slot = next_file(table, cursor)))
            return false;
        save_file(table, file_at(table, slot), &ret_record->record.file);
        return true;
    case PART_CLAIMS:
        if (!(slot = next_claim(table, cursor, false)))
            return false;
        save_claim(table, claim_at(table, slot), &ret_record->record.claim);
        ret_record->record.claim.created = is_creator(table, slot);
        return true;
    case PART_WAITERS:
        if (!(slot = next_claim(table, cursor, true)))
            return false;
        save_claim(table, waiter_at(table, slot), &ret_record->record.waiter);
        ret_record->record.waiter.created = false;
        return true;
    case PART_DELAYS:
        slot =
            cursor->slot ? delay_at(table, cursor->slot)->links.next : table->delays_in_order.head;
        if (!slot)
            return false;
        cursor->slot = slot;
        save_delay(table, delay_at(table, slot), &ret_record->record.delay);
        return true;
    case PART_END:
        break;
    }
    return false;
}

size_t lock_table_save(const struct lock_table *table, struct lock_table_cursor *cursor,
                       char *buffer)
{
    lockfs_SnapshotRecord record;

    if (!cursor->part)
        cursor->part = PART_TABLE;
    while (!save_next(table, cursor, &record)) {
        if (cursor->part == PART_END)
            return 0;
        cursor->part++;
        cursor->slot = cursor->lock = 0;
    }
    record.which_record = (pb_size_t)cursor->part;
    pb_ostream_t stream = pb_ostream_from_buffer((pb_byte_t *)buffer, LIMIT_SNAPSHOT_RECORD_BYTES);
    bool fits = pb_encode(&stream, lockfs_SnapshotRecord_fields, &record);
    assert(fits && stream.bytes_written);
    return stream.bytes_written;
}

/* Size */

/* All sessions that there can be are counted: INCARNATION is not to be refused for one more. */
uint64_t lock_table_snapshot_bytes(const struct lock_table *table)
{
    return TABLE_BYTES + (uint64_t)table->sessions.capacity * SESSION_BYTES +
           (uint64_t)table->locks.used * LOCK_BYTES + (uint64_t)table->files.used * FILE_BYTES +
           ((uint64_t)table->claims.used + table->waiters.used) * CLAIM_BYTES +
           (uint64_t)table->delays.used * DELAY_BYTES + table->names_bytes + table->contents_bytes;
}

static uint64_t content_growth(uint64_t end)
{
    return end < LIMIT_CONTENT_BYTES ? end : LIMIT_CONTENT_BYTES;
}

uint64_t lock_table_snapshot_growth(const struct command *command)
{
    switch (command->type) {
    case COMMAND_ACQUIRE:
        return CLAIM_BYTES + FILE_BYTES + command->name.len;
    case COMMAND_MKDIR:
        return LOCK_BYTES + command->name.len;
    case COMMAND_WRITE:
        return content_growth(command->data.len + (command->append ? 0 : command->offset));
    case COMMAND_TRUNCATE:
        return content_growth(command->offset);
    default:
        return 0;
    }
}

/* Restoring */

static bool restore_table(struct lock_table *table, struct lock_table_restoring *restoring,
                          const lockfs_SnapshotTable *message)
{
    restoring->expected.sessions = message->sessions;
    restoring->expected.locks = message->locks;
    restoring->expected.files = message->files;
    restoring->expected.claims = message->claims;
    restoring->expected.waiters = message->waiters;
    restoring->expected.delays = message->delays;
    table->token = message->token;
    table->next_id = message->next_id;
    return message->next_id > LOCK_TABLE_ROOT && message->claims <= table->claims.capacity &&
           message->waiters <= table->waiters.capacity &&
           message->claims + message->waiters <= table->claims.capacity;
}

static bool restore_session(struct lock_table *table, const lockfs_SnapshotSession *message)
{
    if (!message->node || message->boot_id.size != BOOT_ID_BYTES ||
        lock_table__session(table, message->node))
        return false;
    uint32_t slot = slab_take(&table->sessions);
    if (!slot)
        return false;
    struct session *session = session_at(table, slot);
    session->node = message->node;
    session->incarnation = message->incarnation;
    session->seq = message->seq;
    memcpy(session->boot_id, message->boot_id.bytes, BOOT_ID_BYTES);
    return true;
}

/* A lock's place in the tree, the root being there and coming first. 0 where there is none for it.
 */
static uint32_t place_lock(struct lock_table *table, struct lock_table_restoring *restoring,
                           const lockfs_SnapshotLock *message)
{
    struct span name = {(const char *)message->name.bytes, message->name.size};
    uint32_t chunks;
    uint32_t root = lock_table__lock(table, LOCK_TABLE_ROOT);

    if (!restoring->last++)
        return message->id == LOCK_TABLE_ROOT && !message->parent && !name.len ? root : 0;
    uint32_t parent = lock_table__lock(table, message->parent);
    if (message->id <= LOCK_TABLE_ROOT || message->id >= table->next_id || !parent || !name.len ||
        lock_table__lock(table, message->id) || lock_table__child(table, parent, name) ||
        lock_at(table, parent)->depth >= LIMIT_DEPTH || table->locks.used == table->limits.locks ||
        !lock_table__name_take(table, name, &chunks))
        return 0;
    uint32_t last = lock_at(table, parent)->locks.tail;
    if (last && lock_at(table, last)->id >= message->id)
        return 0;
    uint32_t slot = slab_take(&table->locks);
    struct lock *lock = lock_at(table, slot);
    lock->id = message->id;
    lock->parent = parent;
    lock->depth = lock_at(table, parent)->depth + 1;
    lock->name = chunks;
    lock->name_len = (uint32_t)name.len;
    lock_table__add_lock(table, slot, name);
    return slot;
}

static bool restore_lock(struct lock_table *table, struct lock_table_restoring *restoring,
                         const lockfs_SnapshotLock *message)
{
    uint32_t slot = place_lock(table, restoring, message);
    if (!slot || message->mode > 07777 || message->limit > LIMIT_CLAIMS ||
        message->last_token > table->token ||
        (message->release != RELEASE_CLOSE && message->release != RELEASE_EXIT))
        return false;
    struct lock *lock = lock_at(table, slot);
    lock->mode = message->mode;
    lock->uid = message->uid;
    lock->gid = message->gid;
    lock->limit = message->limit;
    lock->ttl_ms = message->ttl_ms;
    lock->release = message->release;
    lock->delay_ms = message->delay_ms;
    lock->last_token = message->last_token;
    lock->stamp_ms = (int64_t)message->stamp_ms;
    lock->maker_incarnation = message->maker_incarnation;
    lock->maker_seq = message->maker_seq;
    return true;
}

/* Files of one lock come in the order of their ids. */
static bool restore_file(struct lock_table *table, const lockfs_SnapshotFile *message)
{
    struct span name = {(const char *)message->name.bytes, message->name.size};
    struct span content = {(const char *)message->content.bytes, message->content.size};
    uint32_t lock = lock_table__lock(table, message->lock);

    if (!lock || !name.len || message->mode > 07777 || message->id >= table->next_id ||
        table->files.used == table->files.capacity || lock_table__file(table, lock, name) ||
        lock_table__child(table, lock, name) || lock_table__file_by_id(table, message->id))
        return false;
    uint32_t last = lock_at(table, lock)->files.tail;
    if (message->id <= (last ? file_at(table, last)->id : 0))
        return false;
    uint32_t slot = lock_table__file_put(table, lock, name, message->id);
    if (!slot || lock_table__content_resize(table, slot, content.len))
        return false;
    struct file *file = file_at(table, slot);
    file->mode = message->mode;
    file->uid = message->uid;
    file->gid = message->gid;
    chunks_write(&table->chunks, file->content, 0, content);
    return true;
}

/* What claims and waiters have in common. */
static bool decode_claim(const struct lock_table *table, const lockfs_SnapshotClaim *message,
                         struct claim *ret_claim)
{
    uint32_t session = lock_table__session(table, message->node);
    uint32_t file = lock_table__file_by_id(table, message->file);

    if (!session || !file || message->kind < CLAIM_CREATE || message->kind > CLAIM_FCNTL ||
        message->mode < CLAIM_SHARED || message->mode > CLAIM_EXCLUSIVE ||
        message->release > RELEASE_EXIT || message->before > CLAIM_EXCLUSIVE)
        return false;
    *ret_claim = (struct claim){
        .order = message->order,
        .handle = message->handle,
        .seq = message->seq,
        .owner = message->owner,
        .process_start = message->process_start,
        .stamp_ms = (int64_t)message->stamp_ms,
        .file = file,
        .pid = message->pid,
        .uid = message->uid,
        .ttl_ms = message->ttl_ms,
        .session = (uint16_t)session,
        .kind = (uint8_t)message->kind,
        .mode = (uint8_t)message->mode,
        .release = (uint8_t)message->release,
        .passer = message->passer,
        .before = (uint8_t)message->before,
    };
    memcpy(ret_claim->comm, message->comm.bytes, message->comm.size);
    return true;
}

static bool restore_claim(struct lock_table *table, const lockfs_SnapshotClaim *message)
{
    struct claim claim;
    if (!decode_claim(table, message, &claim) || claim.passer ||
        table->claims.used == table->claims.capacity)
        return false;
    struct file *file = file_at(table, claim.file);
    uint32_t creator = file->create_claim;
    if (claim.order > lock_at(table, file->lock)->last_token ||
        (claim.kind == CLAIM_CREATE && claim.mode != CLAIM_EXCLUSIVE) ||
        (message->created && (claim.kind != CLAIM_CREATE || creator)))
        return false;
    lock_table__put_claim(table, &claim);
    if (!message->created)
        file->create_claim = creator;
    return true;
}

static bool restore_waiter(struct lock_table *table, const lockfs_SnapshotClaim *message)
{
    struct claim waiter;
    if (!decode_claim(table, message, &waiter) || waiter.kind == CLAIM_CREATE ||
        waiter.order >= table->next_id || table->waiters.used == table->limits.waiters)
        return false;
    lock_table__put_waiter(table, &waiter);
    return true;
}

static bool restore_delay(struct lock_table *table, const lockfs_SnapshotDelay *message)
{
    uint32_t lock = lock_table__lock(table, message->lock);
    uint32_t file = message->file ? lock_table__file_by_id(table, message->file) : 0;

    if (!lock || message->id >= table->next_id || !file != !message->file ||
        !file != (lock_at(table, lock)->limit != 0) || (file && file_at(table, file)->lock != lock))
        return false;
    struct queue *queue = file ? &file_at(table, file)->queue : &lock_at(table, lock)->queue;
    if (queue->delay)
        return false;
    return lock_table__put_delay(table, &(struct delay){.id = message->id,
                                                        .stamp_ms = (int64_t)message->stamp_ms,
                                                        .delay_ms = message->delay_ms,
                                                        .lock = lock,
                                                        .file = file}) != 0;
}

/* Sessions and files have another order, or none. */
static bool is_next_number(struct lock_table_restoring *restoring, uint64_t number)
{
    bool is_larger = number > restoring->last;
    restoring->last = number;
    return is_larger;
}

bool lock_table_restore(struct lock_table *table, struct lock_table_restoring *restoring,
                        struct span bytes)
{
    lockfs_SnapshotRecord record;
    pb_istream_t stream = pb_istream_from_buffer((const pb_byte_t *)bytes.data, bytes.len);

    if (!pb_decode(&stream, lockfs_SnapshotRecord_fields, &record))
        return false;
    enum part part = record.which_record;
    if (part < restoring->part || (restoring->part == 0) != (part == PART_TABLE))
        return false;
    if (part != restoring->part)
        restoring->last = 0;
    restoring->part = part;
    switch (part) {
    case PART_TABLE:
        return is_next_number(restoring, 1) &&
               restore_table(table, restoring, &record.record.table);
    case PART_SESSIONS:
        return restore_session(table, &record.record.session);
    case PART_LOCKS:
        return restore_lock(table, restoring, &record.record.lock);
    case PART_FILES:
        return restore_file(table, &record.record.file);
    case PART_CLAIMS:
        return is_next_number(restoring, record.record.claim.order) &&
               restore_claim(table, &record.record.claim);
    case PART_WAITERS:
        return is_next_number(restoring, record.record.waiter.order) &&
               restore_waiter(table, &record.record.waiter);
    case PART_DELAYS:
        return is_next_number(restoring, record.record.delay.id) &&
               restore_delay(table, &record.record.delay);
    default:
        return false;
    }
}

/* A file is there for somebody, and its content for a claim. */
static bool is_wanted(const struct file *file)
{
    return file->claims_count || ((file->waiters_count || file->queue.delay) && !file->content_len);
}

bool lock_table_is_restored(const struct lock_table *table,
                            const struct lock_table_restoring *restoring)
{
    if (!restoring->part || table->sessions.used != restoring->expected.sessions ||
        table->locks.used != restoring->expected.locks ||
        table->files.used != restoring->expected.files ||
        table->claims.used != restoring->expected.claims ||
        table->waiters.used != restoring->expected.waiters ||
        table->delays.used != restoring->expected.delays)
        return false;
    for (uint32_t slot = 1; slot <= table->files.touched; slot++)
        if (!is_wanted(file_at(table, slot)))
            return false;
    return true;
}

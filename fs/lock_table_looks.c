/* The lock table: looks, which change nothing. */
#include <assert.h>
#include <string.h>

#include "lock_table_internal.h"

static void view_name(const struct lock_table *table, uint32_t chunks, size_t len, char *ret_name,
                      size_t *ret_len)
{
    chunks_read(&table->chunks, chunks, 0, ret_name, len);
    ret_name[len] = 0;
    *ret_len = len;
}

static void view_lock(const struct lock_table *table, uint32_t slot, struct lock_view *ret_view)
{
    const struct lock *lock = lock_at(table, slot);
    ret_view->id = lock->id;
    ret_view->parent = lock->parent ? lock_at(table, lock->parent)->id : 0;
    ret_view->uid = lock->uid;
    ret_view->gid = lock->gid;
    ret_view->mode = lock->mode;
    ret_view->limit = lock->limit;
    ret_view->ttl_ms = lock->ttl_ms;
    ret_view->delay_ms = lock->delay_ms;
    ret_view->release = lock->release;
    ret_view->last_token = lock->last_token;
    ret_view->stamp_ms = lock->stamp_ms;
    ret_view->locks_count = lock->locks_count;
    ret_view->claims_count = lock->claims_count;
    ret_view->waiters_count = lock->waiters_count;
    ret_view->delays_count = lock->delays_count;
    view_name(table, lock->name, lock->name_len, ret_view->name, &ret_view->name_len);
}

static void view_process(const struct claim *claim, struct process *ret_process)
{
    ret_process->pid = claim->pid;
    ret_process->start = claim->process_start;
    memcpy(ret_process->comm, claim->comm, sizeof ret_process->comm);
}

static void view_file(const struct lock_table *table, uint32_t slot, struct file_view *ret_view)
{
    const struct file *file = file_at(table, slot);
    *ret_view = (struct file_view){
        .id = file->id,
        .claims_count = file->claims_count,
        .mode = file->mode,
        .uid = file->uid,
        .gid = file->gid,
        .content_len = file->content_len,
    };
    if (file->create_claim) {
        const struct claim *claim = claim_at(table, file->create_claim);
        ret_view->create_token = claim->order;
        ret_view->create_node = session_at(table, claim->session)->node;
        ret_view->create_handle = claim->handle;
        ret_view->release = claim->release;
        view_process(claim, &ret_view->process);
    }
    view_name(table, file->name, file->name_len, ret_view->name, &ret_view->name_len);
}

static void view_claim(const struct lock_table *table, const struct claim *claim, bool waits,
                       struct claim_view *ret_view)
{
    ret_view->token = waits ? 0 : claim->order;
    ret_view->position = claim->order;
    ret_view->node = session_at(table, claim->session)->node;
    ret_view->handle = claim->handle;
    ret_view->seq = claim->seq;
    ret_view->kind = claim->kind;
    ret_view->claim_mode = claim->mode;
    ret_view->owner = claim->owner;
    ret_view->ttl_ms = claim->ttl_ms;
    ret_view->uid = claim->uid;
    ret_view->stamp_ms = claim->stamp_ms;
    view_process(claim, &ret_view->process);
    const struct file *file = file_at(table, claim->file);
    ret_view->lock = lock_at(table, file->lock)->id;
    view_name(table, file->name, file->name_len, ret_view->name, &ret_view->name_len);
}

bool lock_table_get_lock(const struct lock_table *table, uint64_t lock, struct lock_view *ret_view)
{
    uint32_t slot = lock_table__lock(table, lock);
    if (slot)
        view_lock(table, slot, ret_view);
    return slot != 0;
}

bool lock_table_get_session(const struct lock_table *table, uint64_t node,
                            struct session_view *ret_view)
{
    uint32_t slot = lock_table__session(table, node);
    if (!slot)
        return false;
    const struct session *session = session_at(table, slot);
    ret_view->incarnation = session->incarnation;
    ret_view->seq = session->seq;
    memcpy(ret_view->boot_id, session->boot_id, BOOT_ID_BYTES);
    return true;
}

/* A file with claims; one that is only waited for is nobody's business. */
static uint32_t claimed_file(const struct lock_table *table, uint64_t lock, struct span name)
{
    uint32_t slot = lock_table__lock(table, lock);
    slot = slot ? lock_table__file(table, slot, name) : 0;
    return slot && file_at(table, slot)->claims_count ? slot : 0;
}

bool lock_table_get_file(const struct lock_table *table, uint64_t lock, struct span name,
                         struct file_view *ret_view)
{
    uint32_t slot = claimed_file(table, lock, name);
    if (slot)
        view_file(table, slot, ret_view);
    return slot != 0;
}

uint64_t lock_table_find(const struct lock_table *table, uint64_t lock, struct span name)
{
    uint32_t parent = lock_table__lock(table, lock);
    uint32_t slot = parent ? lock_table__child(table, parent, name) : 0;
    return slot ? lock_at(table, slot)->id : 0;
}

size_t lock_table_read(const struct lock_table *table, uint64_t lock, struct span name,
                       uint64_t offset, char *buffer, size_t size)
{
    uint32_t slot = claimed_file(table, lock, name);
    if (!slot || offset >= file_at(table, slot)->content_len)
        return 0;
    const struct file *file = file_at(table, slot);
    if (size > file->content_len - offset)
        size = (size_t)(file->content_len - offset);
    chunks_read(&table->chunks, file->content, (size_t)offset, buffer, size);
    return size;
}

bool lock_table_next_lock(const struct lock_table *table, uint64_t lock, uint64_t after,
                          struct lock_view *ret_view)
{
    uint32_t parent = lock_table__lock(table, lock);
    if (!parent)
        return false;
    uint32_t slot = after ? lock_table__lock(table, after) : 0;
    if (slot && lock_at(table, slot)->parent == parent) {
        slot = lock_at(table, slot)->siblings.next;
    } else {
        slot = lock_at(table, parent)->locks.head;
        while (slot && lock_at(table, slot)->id <= after)
            slot = lock_at(table, slot)->siblings.next;
    }
    if (slot)
        view_lock(table, slot, ret_view);
    return slot != 0;
}

bool lock_table_next_file(const struct lock_table *table, uint64_t lock, uint64_t after,
                          struct file_view *ret_view)
{
    uint32_t parent = lock_table__lock(table, lock);
    if (!parent)
        return false;
    uint32_t slot = after ? index_first(&table->files_by_id, hash_number(after)) : 0;
    while (slot && (file_at(table, slot)->id != after || file_at(table, slot)->lock != parent))
        slot = index_next(&table->files_by_id, slot);
    slot = slot ? file_at(table, slot)->siblings.next : lock_at(table, parent)->files.head;
    while (slot && (file_at(table, slot)->id <= after || !file_at(table, slot)->claims_count))
        slot = file_at(table, slot)->siblings.next;
    if (slot)
        view_file(table, slot, ret_view);
    return slot != 0;
}

bool lock_table_get_claim(const struct lock_table *table, uint64_t lock, uint64_t token,
                          struct claim_view *ret_view)
{
    uint32_t parent = lock_table__lock(table, lock);
    uint32_t slot = lock_table__claim(table, token);
    if (!parent || !slot || file_at(table, claim_at(table, slot)->file)->lock != parent)
        return false;
    view_claim(table, claim_at(table, slot), false, ret_view);
    return true;
}

/* Claims and waiters alike: the first of `list` whose order is larger than `after`. */
static const struct claim *next_in_order(const struct lock_table *table, const struct index *index,
                                         const struct list *list, uint32_t lock, uint64_t after)
{
    uint32_t slot = after ? index_first(index, hash_number(after)) : 0;
    const struct claim *claim = NULL;
    for (; slot; slot = index_next(index, slot)) {
        claim = slab_at(index->slab, slot);
        if (claim->order == after && file_at(table, claim->file)->lock == lock)
            break;
    }
    slot = slot ? claim->in_lock.next : list->head;
    for (; slot; slot = claim->in_lock.next) {
        claim = slab_at(index->slab, slot);
        if (claim->order > after)
            return claim;
    }
    return NULL;
}

bool lock_table_next_claim(const struct lock_table *table, uint64_t lock, uint64_t after_token,
                           struct claim_view *ret_view)
{
    uint32_t slot = lock_table__lock(table, lock);
    if (!slot)
        return false;
    const struct claim *claim = next_in_order(table, &table->claims_by_token,
                                              &lock_at(table, slot)->claims, slot, after_token);
    if (claim)
        view_claim(table, claim, false, ret_view);
    return claim != NULL;
}

bool lock_table_prev_claim_on(const struct lock_table *table, uint64_t lock, struct span name,
                              uint64_t before_token, struct claim_view *ret_view)
{
    uint32_t file = claimed_file(table, lock, name);
    if (!file)
        return false;
    uint32_t slot = file_at(table, file)->claims.tail;
    if (before_token) {
        slot = lock_table__claim(table, before_token);
        assert(slot && claim_at(table, slot)->file == file);
        slot = claim_at(table, slot)->in_file.prev;
    }
    if (slot)
        view_claim(table, claim_at(table, slot), false, ret_view);
    return slot != 0;
}

bool lock_table_next_waiter(const struct lock_table *table, uint64_t lock, uint64_t after_position,
                            struct claim_view *ret_view)
{
    uint32_t slot = lock_table__lock(table, lock);
    if (!slot)
        return false;
    const struct claim *waiter = next_in_order(
        table, &table->waiters_by_position, &lock_at(table, slot)->waiters, slot, after_position);
    if (waiter)
        view_claim(table, waiter, true, ret_view);
    return waiter != NULL;
}

static uint32_t next_delay(const struct lock_table *table, uint64_t after)
{
    uint32_t slot = lock_table__delay_by_id(table, after + 1);
    if (slot)
        return slot;
    slot = lock_table__delay_by_id(table, after);
    slot = slot ? delay_at(table, slot)->links.next : table->delays_in_order.head;
    while (slot && delay_at(table, slot)->id <= after)
        slot = delay_at(table, slot)->links.next;
    return slot;
}

bool lock_table_next_delay(const struct lock_table *table, uint64_t after,
                           struct delay_view *ret_view)
{
    uint32_t slot = next_delay(table, after);
    if (!slot)
        return false;
    const struct delay *delay = delay_at(table, slot);
    *ret_view = (struct delay_view){
        .id = delay->id,
        .lock = lock_at(table, delay->lock)->id,
        .delay_ms = delay->delay_ms,
        .stamp_ms = delay->stamp_ms,
    };
    if (delay->file) {
        const struct file *file = file_at(table, delay->file);
        view_name(table, file->name, file->name_len, ret_view->name, &ret_view->name_len);
    }
    return true;
}

bool lock_table_is_taken(const struct lock_table *table, uint64_t lock, struct span name,
                         enum claim_mode mode)
{
    uint32_t lock_slot = lock_table__lock(table, lock);
    uint32_t file = lock_slot ? lock_table__file(table, lock_slot, name) : 0;
    uint32_t limit = lock_slot ? lock_at(table, lock_slot)->limit : 0;
    if (!lock_slot || (!limit && !file))
        return false;
    const struct queue *queue =
        limit ? &lock_at(table, lock_slot)->queue : &file_at(table, file)->queue;
    uint32_t places =
        queue->exclusive_owners + 1 + (mode == CLAIM_EXCLUSIVE && queue->shared_owners);
    return queue->delay || places > (limit ? limit : 1);
}

bool lock_table_has_waiters(const struct lock_table *table, uint64_t lock, struct span name)
{
    uint32_t lock_slot = lock_table__lock(table, lock);
    uint32_t file = lock_slot ? lock_table__file(table, lock_slot, name) : 0;
    return lock_slot && lock_table__queue_for(table, lock_slot, file)->waiters.head;
}

uint64_t lock_table_walk(const struct lock_table *table, uint32_t *cursor)
{
    while (*cursor < table->locks.touched) {
        uint64_t id = lock_at(table, ++*cursor)->id;
        if (lock_table__lock(table, id) == *cursor)
            return id;
    }
    return 0;
}

/* A slot that was given back has no kind. */
static enum walk walk(const struct lock_table *table, const struct slab *slab, uint32_t *cursor,
                      uint32_t *steps, struct claim_view *ret_view)
{
    for (; *cursor < slab->touched; --*steps) {
        if (!*steps)
            return WALK_MORE;
        const struct claim *claim = slab_at(slab, ++*cursor);
        if (claim->kind) {
            view_claim(table, claim, slab == &table->waiters, ret_view);
            --*steps;
            return WALK_FOUND;
        }
    }
    return WALK_END;
}

enum walk lock_table_walk_claims(const struct lock_table *table, uint32_t *cursor, uint32_t *steps,
                                 struct claim_view *ret_view)
{
    return walk(table, &table->claims, cursor, steps, ret_view);
}

enum walk lock_table_walk_waiters(const struct lock_table *table, uint32_t *cursor, uint32_t *steps,
                                  struct claim_view *ret_view)
{
    return walk(table, &table->waiters, cursor, steps, ret_view);
}

bool lock_table_get_obstacle(const struct lock_table *table, uint64_t lock, struct span name,
                             uint64_t after_token, uint64_t node, uint64_t handle, uint64_t owner,
                             enum claim_mode mode, struct claim_view *ret_view)
{
    uint32_t lock_slot = lock_table__lock(table, lock);
    uint32_t file = lock_slot ? lock_table__file(table, lock_slot, name) : 0;
    uint32_t session = lock_table__session(table, node);
    struct claim request = {.session = (uint16_t)session,
                            .handle = handle,
                            .owner = owner,
                            .kind = CLAIM_FCNTL,
                            .mode = (uint8_t)mode,
                            .file = file};
    if (!lock_slot || lock_table__fits(table, lock_slot, file, &request))
        return false;
    uint32_t slot = lock_at(table, lock_slot)->claims.head;
    for (; slot; slot = claim_at(table, slot)->in_lock.next) {
        const struct claim *claim = claim_at(table, slot);
        if (claim->order > after_token &&
            (lock_at(table, lock_slot)->limit || claim->file == file) &&
            lock_table__is_obstacle(claim, session, handle, owner, (uint8_t)mode)) {
            view_claim(table, claim, false, ret_view);
            return true;
        }
    }
    return false;
}

static void mark(const struct lock_table *table, uint32_t slot)
{
    table->marks[slot / 64] |= UINT64_C(1) << slot % 64;
}

static bool is_marked(const struct lock_table *table, uint32_t slot)
{
    return table->marks[slot / 64] >> slot % 64 & 1;
}

/* As what the owner of a claim counts by those of its claims that count, `without` one. Marks them
 * all, so that each owner is looked at once, however many claims it has. */
static uint8_t standing_by(const struct lock_table *table, const struct queue *queue,
                           uint32_t of_slot, uint32_t without, claim_filter *counts,
                           const void *context)
{
    const struct claim *who = claim_at(table, of_slot);
    uint8_t mode = 0;
    for (uint32_t slot = 0; (slot = lock_table__next_of_owner(table, who, queue, slot));) {
        const struct claim *claim = claim_at(table, slot);
        struct claim_view view;
        mark(table, slot);
        if (slot == without || claim->mode <= mode)
            continue;
        view_claim(table, claim, false, &view);
        if (counts(context, &view))
            mode = claim->mode;
    }
    return mode;
}

bool lock_table_fits_beside(const struct lock_table *table, uint64_t lock, struct span name,
                            uint64_t node, uint64_t handle, uint64_t owner, enum claim_mode mode,
                            claim_filter *counts, const void *context)
{
    uint32_t lock_slot = lock_table__lock(table, lock);
    if (!lock_slot)
        return true;
    uint32_t session = lock_table__session(table, node);
    uint32_t file = lock_table__file(table, lock_slot, name);
    struct claim request = {.session = (uint16_t)session, .owner = owner, .kind = CLAIM_FCNTL};
    uint32_t replaced = file ? lock_table__older_of(table, &request, file) : 0;
    const struct queue *queue = &lock_at(table, lock_slot)->queue;
    struct queue others = {0};
    bool exclusive = mode == CLAIM_EXCLUSIVE;
    uint32_t slot = lock_at(table, lock_slot)->claims.head;
    memset(table->marks, 0, (table->claims.touched / 64 + 1) * sizeof *table->marks);
    for (; slot; slot = claim_at(table, slot)->in_lock.next) {
        if (is_marked(table, slot))
            continue;
        const struct claim *claim = claim_at(table, slot);
        uint8_t standing = standing_by(table, queue, slot, replaced, counts, context);
        /* In a writer's way is who is not of its handle or owner. */
        if (lock_table__is_obstacle(claim, session, handle, owner, CLAIM_EXCLUSIVE))
            lock_table__count_owner(&others, 0, standing);
        else if (claim->kind == CLAIM_FCNTL)
            exclusive = exclusive || standing == CLAIM_EXCLUSIVE;
    }
    uint32_t places = others.exclusive_owners + 1 + (exclusive && others.shared_owners);
    return places <= lock_at(table, lock_slot)->limit;
}

void lock_table_get_counts(const struct lock_table *table, struct lock_table_counts *ret_counts)
{
    *ret_counts = (struct lock_table_counts){
        .locks = table->locks.used,
        .claims = table->claims.used,
        .waiters = table->waiters.used,
        .delays = table->delays.used,
        .token = table->token,
        .names_bytes = table->names_bytes,
        .contents_bytes = table->contents_bytes,
    };
}

/* The digest runs over everything that a later command can depend on, or a look can show, in an
 * order that does not depend on slots. */
static uint64_t mix(uint64_t digest, uint64_t number)
{
    return hash_number(digest ^ number) + 0x9e3779b97f4a7c15ULL;
}

static uint64_t mix_chunks(const struct lock_table *table, uint64_t digest, uint32_t chunks,
                           size_t len)
{
    char buffer[LIMIT_CONTENT_BYTES];
    chunks_read(&table->chunks, chunks, 0, buffer, len);
    return mix(digest, hash_bytes(len, buffer, len));
}

static uint64_t mix_claim(const struct lock_table *table, uint64_t digest,
                          const struct claim *claim)
{
    digest = mix(digest, claim->order);
    digest = mix(digest, claim->handle);
    digest = mix(digest, claim->seq);
    digest = mix(digest, claim->owner);
    digest =
        mix(digest, (uint64_t)claim->before << 16 | (uint64_t)claim->release << 1 | claim->passer);
    digest = mix(digest, claim->process_start);
    digest = mix(digest, (uint64_t)claim->stamp_ms);
    digest = mix(digest, file_at(table, claim->file)->id);
    digest = mix(digest, (uint64_t)claim->pid << 32 | claim->uid);
    digest = mix(digest, (uint64_t)claim->ttl_ms << 32 | (uint64_t)claim->kind << 8 | claim->mode);
    digest = mix(digest, session_at(table, claim->session)->node);
    return mix(digest, hash_bytes(0, claim->comm, sizeof claim->comm));
}

static uint64_t mix_file(const struct lock_table *table, uint64_t digest, const struct file *file)
{
    digest = mix(digest, file->id);
    digest = mix_chunks(table, digest, file->name, file->name_len);
    digest = mix_chunks(table, digest, file->content, file->content_len);
    if (!file->create_claim)
        return mix(digest, 0);
    digest = mix(digest, claim_at(table, file->create_claim)->order);
    return mix(mix(digest, file->mode), (uint64_t)file->uid << 32 | file->gid);
}

static uint64_t mix_lock(const struct lock_table *table, uint64_t digest, const struct lock *lock)
{
    digest = mix(digest, lock->id);
    digest = mix(digest, lock->parent ? lock_at(table, lock->parent)->id : 0);
    digest = mix_chunks(table, digest, lock->name, lock->name_len);
    digest = mix(digest, (uint64_t)lock->uid << 32 | lock->gid);
    digest = mix(digest, (uint64_t)lock->mode << 32 | lock->limit);
    digest = mix(digest, lock->last_token);
    digest = mix(digest, (uint64_t)lock->stamp_ms);
    digest = mix(mix(digest, lock->maker_incarnation), lock->maker_seq);
    digest = mix(digest, (uint64_t)lock->ttl_ms << 32 | lock->delay_ms);
    digest = mix(digest, lock->release);
    for (uint32_t slot = lock->files.head; slot; slot = file_at(table, slot)->siblings.next)
        digest = mix_file(table, digest, file_at(table, slot));
    for (uint32_t slot = lock->claims.head; slot; slot = claim_at(table, slot)->in_lock.next)
        digest = mix_claim(table, digest, claim_at(table, slot));
    for (uint32_t slot = lock->waiters.head; slot; slot = waiter_at(table, slot)->in_lock.next)
        digest = mix_claim(table, digest, waiter_at(table, slot));
    return digest;
}

uint32_t lock_table__walk(const struct lock_table *table, uint32_t slot)
{
    const struct lock *lock = lock_at(table, slot);
    if (lock->locks.head)
        return lock->locks.head;
    while (!lock->siblings.next && lock->parent)
        lock = lock_at(table, lock->parent);
    return lock->siblings.next;
}

uint64_t lock_table_digest(const struct lock_table *table)
{
    uint64_t digest = mix(table->token, table->next_id);
    for (uint32_t slot = 1; slot <= table->sessions.touched; slot++) {
        const struct session *session = session_at(table, slot);
        digest = mix(digest, session->node);
        digest = mix(mix(digest, session->incarnation), session->seq);
        digest = mix(digest, hash_bytes(0, session->boot_id, BOOT_ID_BYTES));
    }
    struct delay_view delay = {0};
    while (lock_table_next_delay(table, delay.id, &delay)) {
        digest = mix(mix(digest, delay.id), delay.lock);
        digest = mix(mix(digest, delay.delay_ms), (uint64_t)delay.stamp_ms);
        digest = mix(digest, hash_bytes(0, delay.name, delay.name_len));
    }
    for (uint32_t slot = lock_table__lock(table, LOCK_TABLE_ROOT); slot;
         slot = lock_table__walk(table, slot))
        digest = mix_lock(table, digest, lock_at(table, slot));
    return digest;
}

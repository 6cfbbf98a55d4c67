/* What open files hold: from the grant, over what their callers know of, to the end of it. */
#include <assert.h>
#include <errno.h>
#include <string.h>

#include "node_internal.h"

static const size_t in_inode = offsetof(struct handle, in_inode);
static const size_t in_handle = offsetof(struct fcntl_record, in_handle);

/* A claim that is closed so soon after its grant was probably meant to last (DESIGN A3). */
enum { SHORT_CLAIM_MS = 1000 };

struct handle *node__handle(const struct node *node, uint64_t number)
{
    uint32_t slot = (uint32_t)number;
    if (!slot || slot > node->handles.touched)
        return NULL;
    struct handle *handle = node__handle_at(node, slot);
    return handle->type && handle->number == number ? handle : NULL;
}

struct handle *node__handle_open(struct node *node, enum handle_type type, uint32_t inode,
                                 const struct process *opener)
{
    if (node->handles_open == node->limits.handles)
        return NULL;
    uint32_t reader = 0;
    if (type == HANDLE_CONTROL && !(reader = slab_take(&node->readers)))
        return NULL;
    uint32_t slot = slab_take(&node->handles);
    if (!slot) {
        if (reader)
            slab_give(&node->readers, reader);
        return NULL;
    }
    struct handle *handle = node__handle_at(node, slot);
    handle->number = (uint64_t)++node->generation << 32 | slot;
    handle->type = type;
    handle->inode = inode;
    handle->reader = reader;
    if (reader)
        ((struct reader *)slab_at(&node->readers, reader))->line =
            node->reader_lines + (size_t)(reader - 1) * LIMIT_CONTROL_LINE_BYTES;
    handle->opener = *opener;
    node->handles_open++;
    tree_pin(&node->tree, inode);
    return handle;
}

static uint32_t slot_of(const struct handle *handle)
{
    return (uint32_t)handle->number;
}

/* The list of its lock's inode, where handles are that hold or lost a claim. */
static struct list *claimants(const struct node *node, const struct handle *handle)
{
    uint32_t parent = tree_at(&node->tree, handle->inode)->parent;
    return &tree_at(&node->tree, parent)->claimants;
}

bool node__handle_holds(const struct handle *handle)
{
    return handle->create_token || handle->flock_token || handle->fcntl.head;
}

static bool is_claimant(const struct handle *handle)
{
    return !handle->closed && (node__handle_holds(handle) || handle->lost || handle->unlinked);
}

/* Numbers of processes */

static uint64_t process_hash(uint64_t lock, const struct process *process)
{
    return hash_number(hash_number(lock) ^ process->pid ^ process->start << 32);
}

static uint32_t process_slot(const struct node *node, uint64_t lock, const struct process *process)
{
    uint32_t slot = index_first(&node->numbers_by_process, process_hash(lock, process));
    for (; slot; slot = index_next(&node->numbers_by_process, slot)) {
        const struct process_number *number = slab_at(&node->process_numbers, slot);
        if (number->lock == lock && number->pid == process->pid && number->start == process->start)
            return slot;
    }
    return 0;
}

uint64_t node__number_given_back(const struct node *node, uint64_t lock,
                                 const struct process *process)
{
    uint32_t slot = process_slot(node, lock, process);
    const struct process_number *number = slot ? slab_at(&node->process_numbers, slot) : NULL;
    return number ? number->token : 0;
}

/* A process has one more open file of a lock that holds. */
static void process_joins(struct node *node, uint64_t lock, const struct process *process)
{
    if (!process->pid)
        return;
    uint32_t slot = process_slot(node, lock, process);
    if (!slot) {
        slot = slab_take(&node->process_numbers);
        assert(slot); /* two for each handle */
        struct process_number *number = slab_at(&node->process_numbers, slot);
        number->lock = lock;
        number->pid = process->pid;
        number->start = process->start;
        index_add(&node->numbers_by_process, process_hash(lock, process), slot);
    }
    ((struct process_number *)slab_at(&node->process_numbers, slot))->handles++;
}

/* One of them holds no more; `token`: the number that it gave back, 0 where it lost it. */
static void process_leaves(struct node *node, uint64_t lock, const struct process *process,
                           uint64_t token)
{
    if (!process->pid)
        return;
    uint32_t slot = process_slot(node, lock, process);
    struct process_number *number = slab_at(&node->process_numbers, slot);
    if (token > number->token)
        number->token = token;
    if (--number->handles)
        return;
    index_remove(&node->numbers_by_process, process_hash(lock, process), slot);
    slab_give(&node->process_numbers, slot);
}

static bool has_other_locker(const struct handle *handle)
{
    return !node__same_process(&handle->locker, &handle->opener);
}

void node__handle_set_locker(struct node *node, struct handle *handle,
                             const struct process *process)
{
    if (node__same_process(&handle->locker, process))
        return;
    uint64_t lock = tree_at(&node->tree, handle->inode)->lock;
    bool holds = !handle->closed && node__handle_holds(handle);
    if (holds && has_other_locker(handle))
        process_leaves(node, lock, &handle->locker, 0);
    handle->locker = *process;
    if (holds && has_other_locker(handle))
        process_joins(node, lock, process);
}

/* What a handle counts as, before and after a change. */
struct role {
    bool claimant;
    bool holds;
};

static struct role role_of(const struct handle *handle)
{
    return (struct role){is_claimant(handle), !handle->closed && node__handle_holds(handle)};
}

/* Keeps what is known of claimants, around a change of what a handle is. Who holds nothing, and has
 * lost nothing, has no number. */
static void note_change(struct node *node, struct handle *handle, struct role before)
{
    struct role after = role_of(handle);
    uint64_t lock = tree_at(&node->tree, handle->inode)->lock;
    uint64_t given_back = handle->lost || handle->unlinked ? 0 : handle->token;
    if (!after.claimant)
        handle->token = 0;
    if (after.claimant && !before.claimant)
        list_append(&node->handles, in_inode, claimants(node, handle), slot_of(handle));
    if (!after.claimant && before.claimant)
        list_remove(&node->handles, in_inode, claimants(node, handle), slot_of(handle));
    if (after.holds && !before.holds) {
        process_joins(node, lock, &handle->opener);
        if (has_other_locker(handle))
            process_joins(node, lock, &handle->locker);
    }
    if (!after.holds && before.holds) {
        process_leaves(node, lock, &handle->opener, given_back);
        if (has_other_locker(handle))
            process_leaves(node, lock, &handle->locker, given_back);
    }
}

/* A claim of the table is none of this node's callers' (any more), or it is out of the table. */
static void count_gone(struct node *node, uint32_t slot, int change)
{
    struct inode *inode = tree_at(&node->tree, slot);
    inode->gone_claims += (uint32_t)change;
    tree_at(&node->tree, inode->parent)->gone_claims += (uint32_t)change;
}

void node__handle_drop_unused(struct node *node, struct handle *handle)
{
    if (!handle->closed || handle->claims || handle->waits || handle->commands)
        return;
    if (handle->reader)
        slab_give(&node->readers, handle->reader);
    uint32_t inode = handle->inode;
    handle->type = 0;
    slab_give(&node->handles, slot_of(handle));
    tree_unpin(&node->tree, inode);
}

void node__handle_abandon(struct node *node, struct handle *handle)
{
    assert(!handle->closed && !is_claimant(handle));
    handle->closed = true;
    node->handles_open--;
}

/* Who waits */

void node__count_wait(struct node *node, uint32_t slot, int change)
{
    struct inode *inode = tree_at(&node->tree, slot);
    inode->waits_proposed += (uint32_t)change;
    tree_at(&node->tree, inode->parent)->waits_proposed += (uint32_t)change;
}

/* Whether there is any on a file's resource, of how many are on the file and in its whole lock. */
static bool any_on_resource(const struct node *node, const struct inode *file, uint32_t of_file,
                            uint32_t of_lock)
{
    struct lock_view lock;
    if (of_file || !of_lock)
        return of_file;
    return lock_table_get_lock(node->table, file->lock, &lock) && lock.limit;
}

static bool has_waits_proposed(const struct node *node, const struct inode *file)
{
    uint32_t of_lock = tree_at(&node->tree, file->parent)->waits_proposed;
    return any_on_resource(node, file, file->waits_proposed, of_lock);
}

static bool has_waiters(const struct node *node, const struct inode *file)
{
    char buffer[LIMIT_NAME_BYTES];
    return lock_table_has_waiters(node->table, file->lock, tree_name(&node->tree, file, buffer));
}

bool node__is_awaited(const struct node *node, uint32_t slot)
{
    const struct inode *file = tree_at(&node->tree, slot);
    return node->draining || has_waits_proposed(node, file) || has_waiters(node, file);
}

bool node__will_queue(const struct node *node, const struct command *command)
{
    const struct handle *handle = node__handle(node, command->handle);
    const struct inode *file = tree_at(&node->tree, handle->inode);
    /* Its own claims do not stand in its way, and it may give one back. */
    if (handle->claims || handle->commands ||
        (command->kind == CLAIM_FCNTL && node__fcntl(node, handle->inode, command->owner)))
        return false;
    if (!lock_table_is_taken(node->table, command->lock, command->name, command->claim_mode))
        return false;
    /* A claim that is being given back goes to those who wait already, or else to this request:
     * then nothing but this request hurries it. */
    uint32_t gone_of_lock = tree_at(&node->tree, file->parent)->gone_claims;
    return !any_on_resource(node, file, file->gone_claims, gone_of_lock) || has_waiters(node, file);
}

/* A claim has ended: who was proposed while it stood in the way was not hurried. */
static void hurry_next(struct node *node, const struct handle *handle)
{
    const struct inode *file = tree_at(&node->tree, handle->inode);
    struct node_action action = {.type = NODE_ACTION_HURRY};
    if (has_waits_proposed(node, file) && !has_waiters(node, file))
        node__emit(node, &action);
}

/* fcntl claims */

static uint64_t fcntl_hash(uint32_t inode, uint64_t owner)
{
    return hash_number(owner ^ (uint64_t)inode << 32);
}

static uint32_t fcntl_slot(const struct node *node, uint32_t inode, uint64_t owner)
{
    uint32_t slot = index_first(&node->fcntl_by_owner, fcntl_hash(inode, owner));
    for (; slot; slot = index_next(&node->fcntl_by_owner, slot)) {
        const struct fcntl_record *record = slab_at(&node->fcntl_records, slot);
        if (record->inode == inode && record->owner == owner)
            return slot;
    }
    return 0;
}

struct fcntl_record *node__fcntl(const struct node *node, uint32_t inode, uint64_t owner)
{
    uint32_t slot = fcntl_slot(node, inode, owner);
    return slot ? slab_at(&node->fcntl_records, slot) : NULL;
}

static void forget_fcntl(struct node *node, struct handle *handle, uint32_t slot)
{
    const struct fcntl_record *record = slab_at(&node->fcntl_records, slot);
    index_remove(&node->fcntl_by_owner, fcntl_hash(record->inode, record->owner), slot);
    list_remove(&node->fcntl_records, in_handle, &handle->fcntl, slot);
    slab_give(&node->fcntl_records, slot);
}

static void remember_fcntl(struct node *node, struct handle *handle, const struct effect *claim)
{
    uint32_t slot = slab_take(&node->fcntl_records);
    assert(slot); /* as many as handles, and each conversion gives one back first */
    struct fcntl_record *record = slab_at(&node->fcntl_records, slot);
    record->token = claim->token;
    record->owner = claim->owner;
    record->handle = handle->number;
    record->inode = handle->inode;
    index_add(&node->fcntl_by_owner, fcntl_hash(record->inode, record->owner), slot);
    list_append(&node->fcntl_records, in_handle, &handle->fcntl, slot);
}

void node__flush(struct node *node, const struct node_request *request)
{
    uint32_t slot = tree_slot(request->inode);
    struct inode *inode = tree_inode(&node->tree, request->inode);
    if (!inode || !inode->parent) {
        node__reply_done(node, request->slot);
        return;
    }
    uint32_t record_slot = fcntl_slot(node, slot, request->fcntl.owner);
    bool reserved = false;
    if (record_slot) {
        const struct fcntl_record *record = slab_at(&node->fcntl_records, record_slot);
        struct handle *handle = node__handle(node, record->handle);
        struct role before = role_of(handle);
        reserved = !record->unlocking;
        forget_fcntl(node, handle, record_slot);
        count_gone(node, slot, 1);
        note_change(node, handle, before);
    }
    if (record_slot || inode->fcntl_requests) {
        char buffer[LIMIT_NAME_BYTES];
        struct command command = {
            .type = COMMAND_UNLOCK,
            .kind = CLAIM_FCNTL,
            .lock = inode->lock,
            .name = tree_name(&node->tree, inode, buffer),
            .owner = request->fcntl.owner,
        };
        /* What was held has room reserved for this. A request that is under way holds nothing: when
         * there is no room to forestall it, it ends with its handle. */
        bool hurried = node__is_awaited(node, slot);
        if (node__propose_when(node, &command, reserved, hurried) && reserved)
            node__fail(node, "no room in the log for a release");
    }
    node__reply_done(node, request->slot);
}

/* Closing */

/* For this node the claims are gone at once (DESIGN C7). */

static void let_create_go(struct node *node, struct handle *handle)
{
    if (handle->create_token)
        count_gone(node, handle->inode, 1);
    handle->create_token = 0;
}

static void let_locks_go(struct node *node, struct handle *handle)
{
    if (handle->flock_token)
        count_gone(node, handle->inode, 1);
    handle->flock_token = 0;
    while (handle->fcntl.head) {
        count_gone(node, handle->inode, 1);
        forget_fcntl(node, handle, handle->fcntl.head);
    }
}

static void notice_short_claim(struct node *node, const struct handle *handle)
{
    if (!handle->create_token || handle->release != RELEASE_CLOSE ||
        node->now_ms - handle->granted_ms >= SHORT_CLAIM_MS)
        return;
    const struct inode *inode = tree_at(&node->tree, handle->inode);
    char buffer[LIMIT_NAME_BYTES];
    struct node_action notice = {
        .type = NODE_ACTION_NOTICE,
        .notice = {.type = NODE_NOTICE_SHORT_CLAIM, .process = handle->opener}};
    struct claim_view claim;
    if (lock_table_get_claim(node->table, inode->lock, handle->create_token, &claim)) {
        notice.notice.token = claim.token;
        notice.notice.uid = claim.uid;
    }
    notice.notice.path = node__path(node, inode->lock, tree_name(&node->tree, inode, buffer));
    node__emit(node, &notice);
}

static void propose_release(struct node *node, struct handle *handle)
{
    struct command command = {.type = COMMAND_RELEASE, .handle = handle->number};
    bool hurried = node__is_awaited(node, handle->inode);
    if (node__propose_when(node, &command, true, hurried) == 0)
        handle->commands++;
    else
        node__fail(node, "no room in the log for a release");
}

void node__handle_close(struct node *node, struct handle *handle)
{
    notice_short_claim(node, handle);
    struct role before = role_of(handle);
    let_locks_go(node, handle);
    if (handle->release != RELEASE_EXIT)
        let_create_go(node, handle);
    if (handle->create_token) {
        handle->detached = true;
        if (handle->claims > 1 || handle->waits || handle->commands)
            propose_release(node, handle);
        return;
    }
    handle->lost = handle->unlinked = false;
    note_change(node, handle, before);
    node__handle_abandon(node, handle);
    if (handle->claims || handle->waits || handle->commands)
        propose_release(node, handle);
    node__handle_drop_unused(node, handle);
}

/* The process that made a claim with release mode exit has ended, and with it the claim. */
static void end_exit_claim(struct node *node, struct handle *handle)
{
    struct command command = {.type = COMMAND_END, .token = handle->create_token};
    struct role before = role_of(handle);
    let_create_go(node, handle);
    bool idle = !node__handle_holds(handle);
    if (idle)
        handle->token = 0;
    if (idle && !handle->detached) {
        /* Who has inherited the handle has nothing any more. */
        handle->unlinked = true;
        struct node_action wake = {.type = NODE_ACTION_LOST, .lost = {handle->number}};
        node__emit(node, &wake);
    }
    note_change(node, handle, before);
    if (node__propose_when(node, &command, true, node__is_awaited(node, handle->inode)))
        node__fail(node, "no room in the log for a release");
    if (handle->detached)
        node__handle_abandon(node, handle);
}

void node__process_ended(struct node *node, const struct process *process)
{
    for (uint32_t slot = 1; slot <= node->handles.touched; slot++) {
        struct handle *handle = node__handle_at(node, slot);
        if (handle->type == HANDLE_FILE && handle->create_token &&
            handle->release == RELEASE_EXIT && node__same_process(&handle->opener, process))
            end_exit_claim(node, handle);
    }
}

/* The table's word */

void node__handle_granted(struct node *node, struct handle *handle, const struct effect *claim,
                          bool known)
{
    node->claims_held++;
    handle->claims++;
    /* Whoever gave up a conversion by fcntl goes on holding the weaker mode. */
    if (!(known || claim->converted) || handle->closed || handle->detached) {
        count_gone(node, handle->inode, 1);
        return;
    }
    struct role before = role_of(handle);
    if (claim->kind == CLAIM_FCNTL)
        remember_fcntl(node, handle, claim);
    else
        *(claim->kind == CLAIM_CREATE ? &handle->create_token : &handle->flock_token) =
            claim->token;
    handle->token = claim->token;
    handle->ttl_ms = claim->ttl_ms;
    if (claim->kind == CLAIM_CREATE) {
        handle->release = claim->release;
        handle->granted_ms = node->now_ms;
        if (claim->release == RELEASE_EXIT) {
            struct node_action watch = {.type = NODE_ACTION_WATCH, .watch = handle->opener};
            node__emit(node, &watch);
        }
    }
    note_change(node, handle, before);
}

void node__path_add(const struct node *node, uint64_t lock, struct text *path)
{
    struct lock_view view;
    if (lock == LOCK_TABLE_ROOT || !lock_table_get_lock(node->table, lock, &view))
        return;
    node__path_add(node, view.parent, path); /* LIMIT_DEPTH deep at most */
    text_add(path, (struct span){view.name, view.name_len});
    text_string(path, "/");
}

struct span node__path(struct node *node, uint64_t lock, struct span name)
{
    struct text path = {.data = node->data, .size = NODE_DATA_BYTES};
    node__path_add(node, lock, &path);
    text_add(&path, name);
    return (struct span){path.data, path.len};
}

/* A claim of an open handle was taken from it, by unlink or by force. */
static void handle_lost(struct node *node, struct handle *handle, const struct effect *effect)
{
    struct node_action wake = {.type = NODE_ACTION_LOST, .lost = {handle->number}};
    node__emit(node, &wake);
    bool forced = effect->cause == CAUSE_FORCED;
    if (!forced && node__same_process(&handle->opener, &node->ender)) {
        handle->unlinked = true;
        return;
    }
    handle->lost = true;
    const struct inode *inode = tree_at(&node->tree, handle->inode);
    char buffer[LIMIT_NAME_BYTES];
    struct node_action notice = {
        .type = NODE_ACTION_NOTICE,
        .notice = {.type = forced ? NODE_NOTICE_FORCED : NODE_NOTICE_UNLINKED,
                   .token = effect->token,
                   .process = node->ender,
                   .holder = effect->process}};
    notice.notice.path = node__path(node, inode->lock, tree_name(&node->tree, inode, buffer));
    node__emit(node, &notice);
    if (handle->on_loss_signal) {
        struct node_action signal = {.type = NODE_ACTION_SIGNAL,
                                     .signal = {handle->on_loss, handle->on_loss_signal}};
        node__emit(node, &signal);
    }
}

/* Takes away what callers know of a claim. False where they know of none. */
static bool forget_claim(struct node *node, struct handle *handle, const struct effect *effect)
{
    if (effect->kind == CLAIM_FCNTL) {
        uint32_t slot = fcntl_slot(node, handle->inode, effect->owner);
        const struct fcntl_record *record = slot ? slab_at(&node->fcntl_records, slot) : NULL;
        if (!record || record->token != effect->token)
            return false;
        forget_fcntl(node, handle, slot);
        return true;
    }
    uint64_t *token = effect->kind == CLAIM_CREATE ? &handle->create_token : &handle->flock_token;
    if (*token != effect->token)
        return false;
    *token = 0;
    return true;
}

void node__handle_ended(struct node *node, struct handle *handle, const struct effect *effect)
{
    struct role before = role_of(handle);
    hurry_next(node, handle);
    node->claims_held--;
    handle->claims--;
    if (!forget_claim(node, handle, effect)) {
        count_gone(node, handle->inode, -1);
        node__handle_drop_unused(node, handle);
        return;
    }
    bool taken = effect->cause == CAUSE_FORCED ||
                 (effect->cause == CAUSE_UNLINKED && effect->kind == CLAIM_CREATE);
    if (taken && !handle->lost && !handle->unlinked)
        handle_lost(node, handle, effect);
    if (handle->detached && !handle->create_token) {
        if (handle->lost)
            control__lost_without_handle(node, effect->lock, effect->token, &handle->opener);
        if (handle->lost || handle->unlinked)
            handle->token = 0;
        handle->lost = handle->unlinked = false;
    }
    note_change(node, handle, before);
    if (handle->detached && !handle->create_token) {
        node__handle_abandon(node, handle);
        node__handle_drop_unused(node, handle);
    }
}

bool node__is_taken(const struct node *node, uint64_t lock, struct span name, enum claim_mode mode)
{
    /* What this node has given back may be free before the table says so. */
    uint32_t slot = tree_find_lock(&node->tree, lock);
    return (!slot || !tree_at(&node->tree, slot)->gone_claims) &&
           lock_table_is_taken(node->table, lock, name, mode);
}

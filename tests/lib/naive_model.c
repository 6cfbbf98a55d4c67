/* The naive model of the lock table: obviously right before anything else. See naive_model.h. */
#include "tests/lib/naive_model.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

static void *allocate(size_t size)
{
    void *memory = calloc(1, size ? size : 1);
    assert(memory);
    return memory;
}

static char *copy_name(const char *data, size_t len)
{
    char *name = allocate(len + 1);
    memcpy(name, data, len);
    return name;
}

static void list_append(struct naive_list *list, void *item)
{
    list->items = realloc(list->items, (list->count + 1) * sizeof(void *));
    assert(list->items);
    list->items[list->count++] = item;
}

static void list_remove(struct naive_list *list, const void *item)
{
    size_t i = 0;
    while (list->items[i] != item)
        i++;
    list->count--;
    for (; i < list->count; i++)
        list->items[i] = list->items[i + 1];
}

struct naive_lock *naive_lock_at(const struct naive_model *model, size_t i)
{
    return model->locks.items[i];
}

struct naive_claim *naive_claim_at(const struct naive_model *model, size_t i)
{
    return model->claims.items[i];
}

struct naive_claim *naive_waiter_at(const struct naive_model *model, size_t i)
{
    return model->waiters.items[i];
}

struct naive_file *naive_file_at(const struct naive_model *model, size_t i)
{
    return model->files.items[i];
}

static void free_lock(struct naive_lock *lock)
{
    free(lock->name);
    free(lock);
}

static void free_claim(struct naive_claim *claim)
{
    free(claim->name);
    free(claim);
}

static void free_file(struct naive_file *file)
{
    free(file->name);
    free(file->content);
    free(file);
}

struct naive_model *naive_new(const struct lock_table_limits *limits)
{
    struct naive_model *model = allocate(sizeof(*model));
    struct naive_lock *root = allocate(sizeof(*root));
    model->limits = *limits;
    root->id = LOCK_TABLE_ROOT;
    root->name = copy_name("", 0);
    root->mode = 01777;
    root->limit = 0;
    model->highest_lock = LOCK_TABLE_ROOT;
    list_append(&model->locks, root);
    return model;
}

void naive_free(struct naive_model *model)
{
    for (size_t i = 0; i < model->locks.count; i++)
        free_lock(naive_lock_at(model, i));
    for (size_t i = 0; i < model->claims.count; i++)
        free_claim(naive_claim_at(model, i));
    for (size_t i = 0; i < model->waiters.count; i++)
        free_claim(naive_waiter_at(model, i));
    for (size_t i = 0; i < model->files.count; i++)
        free_file(naive_file_at(model, i));
    for (size_t i = 0; i < model->sessions.count; i++)
        free(model->sessions.items[i]);
    free(model->locks.items);
    free(model->claims.items);
    free(model->waiters.items);
    free(model->files.items);
    free(model->sessions.items);
    free(model);
}

void naive_set_lock_id(struct naive_model *model, uint64_t lock, uint64_t id)
{
    naive_lock(model, lock)->id = id;
    model->highest_lock = id;
}

bool naive_same_name(const char *name, struct span span)
{
    return strlen(name) == span.len && memcmp(name, span.data, span.len) == 0;
}

struct naive_lock *naive_lock(const struct naive_model *model, uint64_t id)
{
    for (size_t i = 0; i < model->locks.count; i++) {
        if (naive_lock_at(model, i)->id == id)
            return naive_lock_at(model, i);
    }
    return NULL;
}

struct naive_lock *naive_child(const struct naive_model *model, uint64_t parent, struct span name)
{
    for (size_t i = 0; i < model->locks.count; i++) {
        struct naive_lock *lock = naive_lock_at(model, i);
        if (lock->id != LOCK_TABLE_ROOT && lock->parent == parent &&
            naive_same_name(lock->name, name))
            return lock;
    }
    return NULL;
}

struct naive_session *naive_session(const struct naive_model *model, uint64_t node)
{
    for (size_t i = 0; i < model->sessions.count; i++) {
        struct naive_session *session = model->sessions.items[i];
        if (session->node == node)
            return session;
    }
    return NULL;
}

struct naive_claim *naive_creator(const struct naive_model *model, uint64_t lock, struct span name)
{
    for (size_t i = 0; i < model->claims.count; i++) {
        struct naive_claim *claim = naive_claim_at(model, i);
        if (claim->kind == CLAIM_CREATE && claim->lock == lock &&
            naive_same_name(claim->name, name))
            return claim;
    }
    return NULL;
}

unsigned naive_depth(const struct naive_model *model, uint64_t lock)
{
    unsigned depth = 0;
    while (lock != LOCK_TABLE_ROOT) {
        lock = naive_lock(model, lock)->parent;
        depth++;
    }
    return depth;
}

uint64_t naive_contents_bytes(const struct naive_model *model)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < model->files.count; i++)
        sum += naive_file_at(model, i)->content_len;
    return sum;
}

static bool same_file(const struct naive_claim *claim, uint64_t lock, const char *name)
{
    return claim->lock == lock && strcmp(claim->name, name) == 0;
}

bool naive_is_claimed(const struct naive_model *model, uint64_t lock, const char *name)
{
    for (size_t i = 0; i < model->claims.count; i++) {
        if (same_file(naive_claim_at(model, i), lock, name))
            return true;
    }
    return false;
}

static bool is_waited_for(const struct naive_model *model, uint64_t lock, const char *name)
{
    for (size_t i = 0; i < model->waiters.count; i++) {
        if (same_file(naive_waiter_at(model, i), lock, name))
            return true;
    }
    return false;
}

static struct naive_file *find_file(const struct naive_model *model, uint64_t lock,
                                    struct span name)
{
    for (size_t i = 0; i < model->files.count; i++) {
        struct naive_file *file = naive_file_at(model, i);
        if (file->lock == lock && naive_same_name(file->name, name))
            return file;
    }
    return NULL;
}

struct naive_file *naive_file(const struct naive_model *model, uint64_t lock, struct span name)
{
    struct naive_file *file = find_file(model, lock, name);
    return file && naive_is_claimed(model, lock, file->name) ? file : NULL;
}

/* The name of each lock once, and of each file that is claimed or waited for once. */
static uint64_t names_bytes(const struct naive_model *model)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < model->locks.count; i++)
        sum += strlen(naive_lock_at(model, i)->name);
    for (size_t i = 0; i < model->files.count; i++)
        sum += strlen(naive_file_at(model, i)->name);
    return sum;
}

static bool same_handle(const struct naive_claim *claim, uint64_t node, uint64_t handle)
{
    return claim->node == node && claim->handle == handle;
}

/* Whether a claim or waiter competes for the resource of file `name` of `lock`. */
static bool competes(const struct naive_model *model, const struct naive_claim *claim,
                     uint64_t lock, const char *name)
{
    if (claim->lock != lock)
        return false;
    return naive_lock(model, lock)->limit != 0 || strcmp(claim->name, name) == 0;
}

/* Whether a claim of another handle stands in the way of what `wanted` asks for. */
static bool conflicts(const struct naive_model *model, const struct naive_claim *wanted)
{
    for (size_t i = 0; i < model->claims.count; i++) {
        const struct naive_claim *claim = naive_claim_at(model, i);
        if (competes(model, claim, wanted->lock, wanted->name) &&
            !same_handle(claim, wanted->node, wanted->handle) &&
            !(claim->claim_mode == CLAIM_SHARED && wanted->claim_mode == CLAIM_SHARED))
            return true;
    }
    return false;
}

static struct naive_claim *flock_claim_of(const struct naive_model *model,
                                          const struct naive_claim *wanted)
{
    for (size_t i = 0; i < model->claims.count; i++) {
        struct naive_claim *claim = naive_claim_at(model, i);
        if (claim->kind == CLAIM_FLOCK && same_file(claim, wanted->lock, wanted->name) &&
            same_handle(claim, wanted->node, wanted->handle))
            return claim;
    }
    return NULL;
}

static void emit(struct naive_model *model, enum effect_type type, enum effect_cause cause,
                 const struct naive_claim *claim, uint64_t token, bool same_boot)
{
    struct effect effect = {
        .type = type,
        .cause = cause,
        .node = claim->node,
        .handle = claim->handle,
        .seq = claim->seq,
        .token = token,
        .lock = claim->lock,
        .kind = claim->kind,
        .claim_mode = claim->claim_mode,
        .process = claim->process,
        .same_boot = same_boot,
    };
    model->sink(model->context, &effect);
}

/* The content is gone with the last claim, the file itself with the last claim or waiter. */
static void forget_files(struct naive_model *model)
{
    for (size_t i = 0; i < model->files.count;) {
        struct naive_file *file = naive_file_at(model, i);
        if (naive_is_claimed(model, file->lock, file->name)) {
            i++;
            continue;
        }
        file->content_len = 0;
        if (is_waited_for(model, file->lock, file->name)) {
            i++;
        } else {
            list_remove(&model->files, file);
            free_file(file);
        }
    }
}

static void need_file(struct naive_model *model, const struct naive_claim *claim)
{
    struct span name = {claim->name, strlen(claim->name)};
    if (find_file(model, claim->lock, name))
        return;
    struct naive_file *file = allocate(sizeof(*file));
    file->lock = claim->lock;
    file->name = copy_name(name.data, name.len);
    list_append(&model->files, file);
}

static void grant(struct naive_model *model, struct naive_claim *claim, int64_t stamp_ms)
{
    need_file(model, claim);
    claim->token = ++model->token;
    claim->stamp_ms = stamp_ms;
    naive_lock(model, claim->lock)->last_token = claim->token;
    list_append(&model->claims, claim);
}

static struct naive_claim *first_waiter(const struct naive_model *model, uint64_t lock,
                                        const char *name)
{
    for (size_t i = 0; i < model->waiters.count; i++) {
        if (competes(model, naive_waiter_at(model, i), lock, name))
            return naive_waiter_at(model, i);
    }
    return NULL;
}

/*
 * Lets the head of a resource's queue in, as long as nobody else's claim is in its way. A flock
 * claim that its handle got in the meantime ends first.
 */
static void let_in(struct naive_model *model, uint64_t lock, const char *name, int64_t stamp_ms)
{
    for (;;) {
        struct naive_claim *waiter = first_waiter(model, lock, name);
        if (!waiter || conflicts(model, waiter))
            return;
        struct naive_claim *held = flock_claim_of(model, waiter);
        if (held) {
            emit(model, EFFECT_ENDED, CAUSE_CONVERTED, held, held->token, false);
            list_remove(&model->claims, held);
            free_claim(held);
            forget_files(model);
        }
        list_remove(&model->waiters, waiter);
        grant(model, waiter, stamp_ms);
        emit(model, EFFECT_GRANTED, CAUSE_NONE, waiter, waiter->token, false);
    }
}

/* Serves the queue in which the waiter is whom the table granted something. */
static void serve(struct naive_model *model, const struct effect *granted, int64_t stamp_ms)
{
    for (size_t i = 0; granted->type == EFFECT_GRANTED && i < model->waiters.count; i++) {
        const struct naive_claim *waiter = naive_waiter_at(model, i);
        if (same_handle(waiter, granted->node, granted->handle) && waiter->seq == granted->seq) {
            char *name = copy_name(waiter->name, strlen(waiter->name));
            let_in(model, waiter->lock, name, stamp_ms);
            free(name);
            return;
        }
    }
}

static void move_doomed(struct naive_list *from, struct naive_list *to)
{
    for (size_t i = 0; i < from->count;) {
        struct naive_claim *claim = from->items[i];
        if (claim->doomed) {
            list_remove(from, claim);
            list_append(to, claim);
        } else {
            i++;
        }
    }
}

/* Ends what is doomed, all of it before anybody gains by it. */
static void sweep(struct naive_model *model, enum effect_cause cause, bool same_boot,
                  int64_t stamp_ms)
{
    struct naive_list ended = {0};
    move_doomed(&model->waiters, &ended);
    move_doomed(&model->claims, &ended);
    forget_files(model);
    for (size_t i = 0; i < ended.count; i++) {
        const struct naive_claim *claim = ended.items[i];
        emit(model, claim->token ? EFFECT_ENDED : EFFECT_DROPPED, cause, claim, claim->token,
             same_boot && claim->token);
    }
    for (size_t i = 0; i < model->order_count; i++)
        serve(model, &model->order[i], stamp_ms);
    for (size_t i = 0; i < ended.count; i++) {
        const struct naive_claim *claim = ended.items[i];
        let_in(model, claim->lock, claim->name, stamp_ms);
    }
    for (size_t i = 0; i < ended.count; i++)
        free_claim(ended.items[i]);
    free(ended.items);
}

static int apply_incarnation(struct naive_model *model, const struct command *command)
{
    struct naive_session *session = naive_session(model, command->node);
    bool same_boot = false;
    if (command->replaces != (session ? session->incarnation : 0))
        return -ESTALE;
    if (!session) {
        if (model->sessions.count >= model->limits.sessions)
            return -ENOSPC;
        session = allocate(sizeof(*session));
        session->node = command->node;
        list_append(&model->sessions, session);
    } else {
        same_boot = memcmp(session->boot_id, command->boot_id, BOOT_ID_BYTES) == 0;
    }
    session->incarnation = command->incarnation;
    session->seq = 0;
    memcpy(session->boot_id, command->boot_id, BOOT_ID_BYTES);
    for (size_t i = 0; i < model->claims.count; i++)
        naive_claim_at(model, i)->doomed = naive_claim_at(model, i)->node == command->node;
    for (size_t i = 0; i < model->waiters.count; i++)
        naive_waiter_at(model, i)->doomed = naive_waiter_at(model, i)->node == command->node;
    sweep(model, CAUSE_INCARNATION, same_boot, command->stamp_ms);
    return 0;
}

static int apply_mkdir(struct naive_model *model, const struct command *command, uint64_t *ret_lock)
{
    if (!naive_lock(model, command->lock))
        return -ESTALE;
    char *name = copy_name(command->name.data, command->name.len);
    int error = 0;
    if (naive_child(model, command->lock, command->name) ||
        naive_is_claimed(model, command->lock, name) || is_waited_for(model, command->lock, name))
        error = -EEXIST;
    else if (naive_depth(model, command->lock) >= LIMIT_DEPTH)
        error = -ENAMETOOLONG;
    else if (model->locks.count >= model->limits.locks ||
             names_bytes(model) + command->name.len > model->limits.names_bytes)
        error = -ENOSPC;
    if (error) {
        free(name);
        return error;
    }
    struct naive_lock *lock = allocate(sizeof(*lock));
    lock->id = ++model->highest_lock;
    lock->parent = command->lock;
    lock->name = name;
    lock->uid = command->uid;
    lock->gid = command->gid;
    lock->mode = command->mode;
    lock->limit = 1;
    lock->stamp_ms = command->stamp_ms;
    lock->node = command->node;
    lock->incarnation = command->incarnation;
    lock->seq = command->seq;
    list_append(&model->locks, lock);
    naive_lock(model, lock->parent)->stamp_ms = command->stamp_ms;
    *ret_lock = lock->id;
    return 0;
}

static bool is_empty(const struct naive_model *model, uint64_t lock)
{
    for (size_t i = 0; i < model->locks.count; i++) {
        if (naive_lock_at(model, i)->parent == lock)
            return false;
    }
    for (size_t i = 0; i < model->claims.count; i++) {
        if (naive_claim_at(model, i)->lock == lock)
            return false;
    }
    for (size_t i = 0; i < model->waiters.count; i++) {
        if (naive_waiter_at(model, i)->lock == lock)
            return false;
    }
    return true;
}

static void remove_lock(struct naive_model *model, struct naive_lock *lock, int64_t stamp_ms)
{
    naive_lock(model, lock->parent)->stamp_ms = stamp_ms;
    list_remove(&model->locks, lock);
    free_lock(lock);
}

static int apply_rmdir(struct naive_model *model, const struct command *command)
{
    if (!naive_lock(model, command->lock))
        return -ESTALE;
    struct naive_lock *lock = naive_child(model, command->lock, command->name);
    if (!lock)
        return -ENOENT;
    if (!is_empty(model, lock->id))
        return -ENOTEMPTY;
    remove_lock(model, lock, command->stamp_ms);
    return 0;
}

/* Whether one more claim, or one more waiter, on this file finds room. A waiter that becomes a
 * claim needs none: it brings its own. */
static bool has_room(const struct naive_model *model, const struct naive_claim *wanted, bool waits)
{
    struct span name = {wanted->name, strlen(wanted->name)};
    uint64_t more = find_file(model, wanted->lock, name) ? 0 : name.len;
    if (names_bytes(model) + more > model->limits.names_bytes)
        return false;
    if (model->claims.count + model->waiters.count >=
        (size_t)model->limits.claims + model->limits.waiters)
        return false;
    return waits ? model->waiters.count < model->limits.waiters
                 : model->claims.count < model->limits.claims;
}

/* Whether the handle has another claim on what it asks for. */
static bool holds(const struct naive_model *model, const struct naive_claim *wanted)
{
    for (size_t i = 0; i < model->claims.count; i++) {
        const struct naive_claim *claim = naive_claim_at(model, i);
        if (competes(model, claim, wanted->lock, wanted->name) &&
            same_handle(claim, wanted->node, wanted->handle))
            return true;
    }
    return false;
}

/* Whether it is this request's turn: nobody waits whom it must not overtake, and a claim by creating
 * is the first one of its handle. */
static bool is_its_turn(const struct naive_model *model, const struct naive_claim *wanted)
{
    if (holds(model, wanted))
        return wanted->kind != CLAIM_CREATE;
    return first_waiter(model, wanted->lock, wanted->name) == NULL;
}

static struct command_result request(struct naive_model *model, struct naive_claim *wanted,
                                     bool wait, int64_t stamp_ms)
{
    struct naive_claim *held;
    /* More than once, where ending the claim lets another wait of the same handle in. */
    while (wanted->kind == CLAIM_FLOCK && (held = flock_claim_of(model, wanted)) != NULL) {
        if (held->claim_mode == wanted->claim_mode) {
            struct command_result result = {.token = held->token};
            free_claim(wanted);
            return result;
        }
        held->doomed = true;
        sweep(model, CAUSE_CONVERTED, false, stamp_ms);
    }
    struct command_result result = {0};
    if (!conflicts(model, wanted) && is_its_turn(model, wanted)) {
        if (has_room(model, wanted, false)) {
            grant(model, wanted, stamp_ms);
            result.token = wanted->token;
            return result;
        }
        result.error = -ENOLCK;
    } else if (wanted->kind == CLAIM_CREATE) {
        result.error = -EEXIST;
    } else if (!wait) {
        result.error = -EWOULDBLOCK;
    } else if (has_room(model, wanted, true)) {
        wanted->stamp_ms = stamp_ms;
        need_file(model, wanted);
        list_append(&model->waiters, wanted);
        result.queued = true;
        return result;
    } else {
        result.error = -ENOLCK;
    }
    free_claim(wanted);
    return result;
}

/* A handle is on one file. */
static bool is_elsewhere(const struct naive_model *model, const struct command *command)
{
    for (size_t i = 0; i < model->claims.count + model->waiters.count; i++) {
        const struct naive_claim *claim = i < model->claims.count
                                              ? naive_claim_at(model, i)
                                              : naive_waiter_at(model, i - model->claims.count);
        if (same_handle(claim, command->node, command->handle) &&
            !(claim->lock == command->lock && naive_same_name(claim->name, command->name)))
            return true;
    }
    return false;
}

static struct command_result apply_acquire(struct naive_model *model, const struct command *command)
{
    struct command_result refused = {.error = -ESTALE};
    if (!naive_lock(model, command->lock) || naive_child(model, command->lock, command->name))
        return refused;
    if (is_elsewhere(model, command)) {
        refused.error = -EINVAL;
        return refused;
    }
    struct naive_claim *wanted = allocate(sizeof(*wanted));
    wanted->lock = command->lock;
    wanted->name = copy_name(command->name.data, command->name.len);
    wanted->node = command->node;
    wanted->handle = command->handle;
    wanted->seq = command->seq;
    wanted->kind = command->kind;
    wanted->claim_mode = command->claim_mode;
    wanted->process = command->process;
    wanted->uid = command->uid;
    wanted->mode = command->mode;
    wanted->file_uid = command->uid;
    wanted->file_gid = command->gid;
    return request(model, wanted, command->wait, command->stamp_ms);
}

static void doom_handle(struct naive_model *model, uint64_t node, uint64_t handle, bool unlock)
{
    for (size_t i = 0; i < model->claims.count; i++) {
        struct naive_claim *claim = naive_claim_at(model, i);
        if (same_handle(claim, node, handle) && (!unlock || claim->kind == CLAIM_FLOCK))
            claim->doomed = true;
    }
    for (size_t i = 0; i < model->waiters.count; i++) {
        struct naive_claim *waiter = naive_waiter_at(model, i);
        if (same_handle(waiter, node, handle) && !unlock)
            waiter->doomed = true;
    }
}

/* The claim by creating that UNLINK and SET_CLAIM name. */
static struct naive_claim *named_creator(const struct naive_model *model,
                                         const struct command *command)
{
    struct naive_claim *claim = naive_creator(model, command->lock, command->name);
    return claim && claim->token == command->token ? claim : NULL;
}

static int apply_unlink(struct naive_model *model, const struct command *command)
{
    const struct naive_claim *claim = named_creator(model, command);
    if (!claim)
        return -ENOENT;
    if (claim->node != command->node)
        return -EBUSY;
    doom_handle(model, claim->node, claim->handle, false);
    sweep(model, CAUSE_UNLINKED, false, command->stamp_ms);
    return 0;
}

static void apply_cancel(struct naive_model *model, const struct command *command)
{
    for (size_t i = 0; i < model->claims.count; i++) {
        struct naive_claim *claim = naive_claim_at(model, i);
        claim->doomed =
            same_handle(claim, command->node, command->handle) && claim->seq == command->target;
    }
    for (size_t i = 0; i < model->waiters.count; i++) {
        struct naive_claim *waiter = naive_waiter_at(model, i);
        waiter->doomed =
            same_handle(waiter, command->node, command->handle) && waiter->seq == command->target;
    }
    sweep(model, CAUSE_CANCELLED, false, command->stamp_ms);

    struct naive_lock *lock = naive_child(model, command->lock, command->name);
    if (lock && lock->node == command->node && lock->incarnation == command->incarnation &&
        lock->seq == command->target && lock->last_token == 0 && is_empty(model, lock->id))
        remove_lock(model, lock, command->stamp_ms);
}

/* The file that a handle has a claim on. */
static struct naive_file *file_of_handle(const struct naive_model *model,
                                         const struct command *command)
{
    for (size_t i = 0; i < model->claims.count; i++) {
        const struct naive_claim *claim = naive_claim_at(model, i);
        if (same_handle(claim, command->node, command->handle)) {
            struct span name = {claim->name, strlen(claim->name)};
            return naive_file(model, claim->lock, name);
        }
    }
    return NULL;
}

static int resize(struct naive_model *model, struct naive_file *file, size_t len)
{
    if (len > file->content_len &&
        naive_contents_bytes(model) - file->content_len + len > model->limits.contents_bytes)
        return -ENOSPC;
    char *content = allocate(len);
    memcpy(content, file->content ? file->content : "",
           len < file->content_len ? len : file->content_len);
    free(file->content);
    file->content = content;
    file->content_len = len;
    return 0;
}

static int apply_write(struct naive_model *model, const struct command *command)
{
    struct naive_file *file = file_of_handle(model, command);
    if (!file)
        return -EPERM;
    uint64_t offset = command->append ? file->content_len : command->offset;
    if (offset > LIMIT_CONTENT_BYTES || command->data.len > LIMIT_CONTENT_BYTES - offset)
        return -EFBIG;
    if (command->data.len == 0)
        return 0;
    if (offset + command->data.len > file->content_len) {
        int error = resize(model, file, offset + command->data.len);
        if (error)
            return error;
    }
    memcpy(file->content + offset, command->data.data, command->data.len);
    return 0;
}

static int apply_truncate(struct naive_model *model, const struct command *command)
{
    struct naive_file *file = file_of_handle(model, command);
    if (!file)
        return -EPERM;
    if (command->offset > LIMIT_CONTENT_BYTES)
        return -EFBIG;
    return resize(model, file, command->offset);
}

static void set(const struct command *command, uint32_t *mode, uint32_t *uid, uint32_t *gid)
{
    if (command->attributes & ATTRIBUTE_MODE)
        *mode = command->mode;
    if (command->attributes & ATTRIBUTE_UID)
        *uid = command->uid;
    if (command->attributes & ATTRIBUTE_GID)
        *gid = command->gid;
}

static int apply_set_lock(struct naive_model *model, const struct command *command)
{
    struct naive_lock *lock = naive_lock(model, command->lock);
    if (!lock)
        return -ESTALE;
    set(command, &lock->mode, &lock->uid, &lock->gid);
    return 0;
}

static int apply_set_claim(struct naive_model *model, const struct command *command)
{
    struct naive_claim *claim = named_creator(model, command);
    if (!claim)
        return -EPERM;
    set(command, &claim->mode, &claim->file_uid, &claim->file_gid);
    return 0;
}

struct command_result naive_apply(struct naive_model *model, const struct command *command,
                                  effect_sink *sink, void *context, const struct effect *order,
                                  size_t order_count)
{
    struct command_result result = {0};
    model->sink = sink;
    model->context = context;
    model->order = order;
    model->order_count = order_count;
    if (command->type == COMMAND_INCARNATION) {
        result.error = apply_incarnation(model, command);
        return result;
    }
    struct naive_session *session = naive_session(model, command->node);
    if (!session || session->incarnation != command->incarnation) {
        result.error = -ESTALE;
        return result;
    }
    if (command->seq != session->seq + 1) {
        result.error = -EPROTO;
        return result;
    }
    session->seq = command->seq;
    switch (command->type) {
    case COMMAND_INCARNATION:
        break;
    case COMMAND_MKDIR:
        result.error = apply_mkdir(model, command, &result.lock);
        break;
    case COMMAND_RMDIR:
        result.error = apply_rmdir(model, command);
        break;
    case COMMAND_ACQUIRE:
        result = apply_acquire(model, command);
        break;
    case COMMAND_RELEASE:
        doom_handle(model, command->node, command->handle, false);
        sweep(model, CAUSE_RELEASED, false, command->stamp_ms);
        break;
    case COMMAND_UNLOCK:
        doom_handle(model, command->node, command->handle, true);
        sweep(model, CAUSE_RELEASED, false, command->stamp_ms);
        break;
    case COMMAND_UNLINK:
        result.error = apply_unlink(model, command);
        break;
    case COMMAND_CANCEL:
        apply_cancel(model, command);
        break;
    case COMMAND_WRITE:
        result.error = apply_write(model, command);
        break;
    case COMMAND_TRUNCATE:
        result.error = apply_truncate(model, command);
        break;
    case COMMAND_SET_LOCK:
        result.error = apply_set_lock(model, command);
        break;
    case COMMAND_SET_CLAIM:
        result.error = apply_set_claim(model, command);
        break;
    }
    return result;
}

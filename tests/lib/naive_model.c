/* The naive model of the lock table: obviously right before anything else. See naive_model.h. */
#include "tests/lib/naive_internal.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

void *naive__allocate(size_t size)
{
    void *memory = calloc(1, size ? size : 1);
    assert(memory);
    return memory;
}

char *naive__copy_name(const char *data, size_t len)
{
    char *name = naive__allocate(len + 1);
    memcpy(name, data, len);
    return name;
}

struct span naive__span(const char *name)
{
    return (struct span){name, strlen(name)};
}

void naive__append(struct naive_list *list, void *item)
{
    list->items = realloc(list->items, (list->count + 1) * sizeof(void *));
    assert(list->items);
    list->items[list->count++] = item;
}

void naive__remove(struct naive_list *list, const void *item)
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

struct naive_delay *naive_delay_at(const struct naive_model *model, size_t i)
{
    return model->delays.items[i];
}

static void free_lock(struct naive_lock *lock)
{
    free(lock->name);
    free(lock);
}

void naive__free_claim(struct naive_claim *claim)
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

void naive__free_delay(struct naive_delay *delay)
{
    free(delay->name);
    free(delay);
}

struct naive_model *naive_new(const struct lock_table_limits *limits)
{
    struct naive_model *model = naive__allocate(sizeof(*model));
    struct naive_lock *root = naive__allocate(sizeof(*root));
    model->limits = *limits;
    root->id = LOCK_TABLE_ROOT;
    root->name = naive__copy_name("", 0);
    root->mode = 01777;
    root->limit = 0;
    root->release = RELEASE_CLOSE;
    model->highest_lock = LOCK_TABLE_ROOT;
    naive__append(&model->locks, root);
    return model;
}

void naive_free(struct naive_model *model)
{
    for (size_t i = 0; i < model->locks.count; i++)
        free_lock(naive_lock_at(model, i));
    for (size_t i = 0; i < model->claims.count; i++)
        naive__free_claim(naive_claim_at(model, i));
    for (size_t i = 0; i < model->waiters.count; i++)
        naive__free_claim(naive_waiter_at(model, i));
    for (size_t i = 0; i < model->files.count; i++)
        free_file(naive_file_at(model, i));
    for (size_t i = 0; i < model->delays.count; i++)
        naive__free_delay(naive_delay_at(model, i));
    for (size_t i = 0; i < model->sessions.count; i++)
        free(model->sessions.items[i]);
    free(model->locks.items);
    free(model->claims.items);
    free(model->waiters.items);
    free(model->files.items);
    free(model->delays.items);
    free(model->sessions.items);
    free(model);
}

void naive_set_lock_id(struct naive_model *model, uint64_t lock, uint64_t id)
{
    naive_lock(model, lock)->id = id;
    model->highest_lock = id;
}

bool naive_set_delay_id(struct naive_model *model, uint64_t lock, struct span name, uint64_t id)
{
    for (size_t i = 0; i < model->delays.count; i++) {
        struct naive_delay *delay = naive_delay_at(model, i);
        if (delay->id != 0 || delay->lock != lock || !naive_same_name(delay->name, name))
            continue;
        delay->id = id;
        model->highest_delay = id;
        naive__remove(&model->delays, delay);
        naive__append(&model->delays, delay);
        return true;
    }
    return false;
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

bool naive__same_file(const struct naive_claim *claim, uint64_t lock, const char *name)
{
    return claim->lock == lock && strcmp(claim->name, name) == 0;
}

bool naive_is_claimed(const struct naive_model *model, uint64_t lock, const char *name)
{
    for (size_t i = 0; i < model->claims.count; i++) {
        if (naive__same_file(naive_claim_at(model, i), lock, name))
            return true;
    }
    return false;
}

static bool is_waited_for(const struct naive_model *model, uint64_t lock, const char *name)
{
    for (size_t i = 0; i < model->waiters.count; i++) {
        if (naive__same_file(naive_waiter_at(model, i), lock, name))
            return true;
    }
    return false;
}

bool naive_is_delayed(const struct naive_model *model, uint64_t lock, const char *name)
{
    bool whole = naive_lock(model, lock)->limit != 0;
    for (size_t i = 0; i < model->delays.count; i++) {
        const struct naive_delay *delay = naive_delay_at(model, i);
        if (delay->lock == lock && (whole || strcmp(delay->name, name) == 0))
            return true;
    }
    return false;
}

/* Whether the name is needed for a delay, which takes a file that is a resource of its own. */
static bool is_delayed_file(const struct naive_model *model, uint64_t lock, const char *name)
{
    return naive_lock(model, lock)->limit == 0 && naive_is_delayed(model, lock, name);
}

struct naive_file *naive__find_file(const struct naive_model *model, uint64_t lock,
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
    struct naive_file *file = naive__find_file(model, lock, name);
    return file && naive_is_claimed(model, lock, file->name) ? file : NULL;
}

/* The name of each lock once, and of each file that is claimed or waited for once. */
uint64_t naive__names_bytes(const struct naive_model *model)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < model->locks.count; i++)
        sum += strlen(naive_lock_at(model, i)->name);
    for (size_t i = 0; i < model->files.count; i++)
        sum += strlen(naive_file_at(model, i)->name);
    return sum;
}

bool naive__same_handle(const struct naive_claim *claim, uint64_t node, uint64_t handle)
{
    return claim->node == node && claim->handle == handle;
}

void naive__forget_files(struct naive_model *model)
{
    for (size_t i = 0; i < model->files.count;) {
        struct naive_file *file = naive_file_at(model, i);
        if (naive_is_claimed(model, file->lock, file->name)) {
            i++;
            continue;
        }
        file->content_len = 0;
        if (is_waited_for(model, file->lock, file->name) ||
            is_delayed_file(model, file->lock, file->name)) {
            i++;
        } else {
            naive__remove(&model->files, file);
            free_file(file);
        }
    }
}

void naive__need_file(struct naive_model *model, uint64_t lock, const char *name)
{
    if (naive__find_file(model, lock, naive__span(name)))
        return;
    struct naive_file *file = naive__allocate(sizeof(*file));
    file->lock = lock;
    file->name = naive__copy_name(name, strlen(name));
    naive__append(&model->files, file);
}

static int apply_mkdir(struct naive_model *model, const struct command *command, uint64_t *ret_lock)
{
    if (!naive_lock(model, command->lock))
        return -ESTALE;
    char *name = naive__copy_name(command->name.data, command->name.len);
    int error = 0;
    if (naive_child(model, command->lock, command->name) ||
        naive__find_file(model, command->lock, command->name))
        error = -EEXIST;
    else if (naive_depth(model, command->lock) >= LIMIT_DEPTH)
        error = -ENAMETOOLONG;
    else if (model->locks.count >= model->limits.locks ||
             naive__names_bytes(model) + command->name.len > model->limits.names_bytes)
        error = -ENOSPC;
    if (error) {
        free(name);
        return error;
    }
    struct naive_lock *lock = naive__allocate(sizeof(*lock));
    lock->id = ++model->highest_lock;
    lock->parent = command->lock;
    lock->name = name;
    lock->uid = command->uid;
    lock->gid = command->gid;
    lock->mode = command->mode;
    lock->limit = 1;
    lock->release = RELEASE_CLOSE;
    lock->stamp_ms = command->stamp_ms;
    lock->node = command->node;
    lock->incarnation = command->incarnation;
    lock->seq = command->seq;
    naive__append(&model->locks, lock);
    naive_lock(model, lock->parent)->stamp_ms = command->stamp_ms;
    *ret_lock = lock->id;
    return 0;
}

static bool is_in_use(const struct naive_model *model, uint64_t lock)
{
    for (size_t i = 0; i < model->claims.count; i++) {
        if (naive_claim_at(model, i)->lock == lock)
            return true;
    }
    for (size_t i = 0; i < model->waiters.count; i++) {
        if (naive_waiter_at(model, i)->lock == lock)
            return true;
    }
    for (size_t i = 0; i < model->delays.count; i++) {
        if (naive_delay_at(model, i)->lock == lock)
            return true;
    }
    return false;
}

static bool is_empty(const struct naive_model *model, uint64_t lock)
{
    for (size_t i = 0; i < model->locks.count; i++) {
        if (naive_lock_at(model, i)->parent == lock)
            return false;
    }
    return !is_in_use(model, lock);
}

static void remove_lock(struct naive_model *model, struct naive_lock *lock, int64_t stamp_ms)
{
    naive_lock(model, lock->parent)->stamp_ms = stamp_ms;
    naive__remove(&model->locks, lock);
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

struct naive_claim *naive__named_creator(const struct naive_model *model,
                                         const struct command *command)
{
    struct naive_claim *claim = naive_creator(model, command->lock, command->name);
    return claim && claim->token == command->token ? claim : NULL;
}

static void apply_cancel(struct naive_model *model, const struct command *command)
{
    naive__cancel_claims(model, command);
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
        if (naive__same_handle(claim, command->node, command->handle)) {
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
    char *content = naive__allocate(len);
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

static bool can_be_set(const struct naive_model *model, const struct naive_lock *lock,
                       const struct command *command)
{
    if (command->attributes & ATTRIBUTE_LIMIT) {
        if (command->limit > LIMIT_CLAIMS)
            return false;
        if ((command->limit == 0) != (lock->limit == 0) && is_in_use(model, lock->id))
            return false;
        if (command->limit != 0 && lock->limit != 0 &&
            command->limit < naive_held(model, lock->id, ""))
            return false;
    }
    if (command->attributes & ATTRIBUTE_RELEASE)
        return command->release == RELEASE_CLOSE || command->release == RELEASE_EXIT;
    return true;
}

static int apply_set_lock(struct naive_model *model, const struct command *command)
{
    struct naive_lock *lock = naive_lock(model, command->lock);
    if (!lock)
        return -ESTALE;
    if (!can_be_set(model, lock, command))
        return -EINVAL;
    set(command, &lock->mode, &lock->uid, &lock->gid);
    if (command->attributes & ATTRIBUTE_TTL)
        lock->ttl_ms = command->ttl_ms;
    if (command->attributes & ATTRIBUTE_RELEASE)
        lock->release = command->release;
    if (command->attributes & ATTRIBUTE_DELAY)
        lock->delay_ms = command->delay_ms;
    if (command->attributes & ATTRIBUTE_LIMIT) {
        bool raised = lock->limit != 0 && command->limit > lock->limit;
        lock->limit = command->limit;
        if (raised)
            naive__let_in(model, lock->id, "", command->stamp_ms);
    }
    return 0;
}

static int apply_set_claim(struct naive_model *model, const struct command *command)
{
    struct naive_claim *claim = naive__named_creator(model, command);
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
        result.error = naive__incarnation(model, command);
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
        result = naive__acquire(model, command);
        break;
    case COMMAND_RELEASE:
        naive__release(model, command);
        break;
    case COMMAND_UNLOCK:
        naive__unlock(model, command);
        break;
    case COMMAND_UNLINK:
        result.error = naive__unlink(model, command);
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
    case COMMAND_END:
        naive__end(model, command);
        break;
    case COMMAND_FORCE:
        result.error = naive__force(model, command);
        break;
    case COMMAND_END_DELAY:
        naive__end_delay(model, command);
        break;
    }
    return result;
}

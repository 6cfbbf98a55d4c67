/* Names and attributes: what the tree shows, and the commands that change it. */
#include <errno.h>
#include <string.h>

#include "node_internal.h"

enum names_place node__place(uint64_t number)
{
    if (tree_control(number) == CONTROL_LOCKFS)
        return NAMES_LOCKFS;
    return tree_slot(number) == TREE_ROOT ? NAMES_ROOT : NAMES_LOCK;
}

bool node__visible_claim(const struct node *node, const struct claim_view *view)
{
    if (view->node != node->config.id)
        return true;
    const struct handle *handle = node__handle(node, view->handle);
    if (!handle)
        return false;
    if (view->kind == CLAIM_FCNTL) {
        const struct fcntl_record *record = node__fcntl(node, handle->inode, view->owner);
        return record && record->token == view->token;
    }
    return handle->create_token == view->token || handle->flock_token == view->token;
}

bool node__visible_file(const struct node *node, uint64_t lock, struct span name,
                        struct file_view *ret_view)
{
    if (!lock_table_get_file(node->table, lock, name, ret_view))
        return false;
    uint32_t slot = tree_find_file(&node->tree, lock, name);
    if (slot && tree_at(&node->tree, slot)->gone_claims >= ret_view->claims_count)
        return false;
    if (ret_view->create_token && ret_view->create_node == node->config.id) {
        const struct handle *handle = node__handle(node, ret_view->create_handle);
        if (!handle || handle->create_token != ret_view->create_token)
            ret_view->create_token = 0;
    }
    return true;
}

/* A stat(2) inode number that is equal on all nodes. Locks have their ids, which are small. */
static uint64_t file_ino(uint64_t lock, struct span name)
{
    return hash_bytes(hash_number(lock), name.data, name.len) >> 2 | UINT64_C(1) << 61;
}

static uint64_t control_ino(uint64_t lock, enum control control)
{
    return file_ino(lock, names_of_control(control)) | UINT64_C(1) << 62;
}

static int file_attr(const struct node *node, const struct inode *inode, struct node_attr *ret_attr)
{
    struct lock_view lock;
    struct file_view file;
    char buffer[LIMIT_NAME_BYTES];
    struct span name = tree_name(&node->tree, inode, buffer);
    if (!lock_table_get_lock(node->table, inode->lock, &lock))
        return -ESTALE;
    *ret_attr = (struct node_attr){
        .ino = file_ino(inode->lock, name),
        .type = NODE_FILE,
        .mode = 0666, /* who may claim is asked for at flock */
        .uid = lock.uid,
        .gid = lock.gid,
        .nlink = 1,
        /* The last renewal of its session, which is never long ago: see DESIGN A3. */
        .mtime_ms = node->wall_ms,
        .ctime_ms = node->wall_ms,
    };
    if (!node__visible_file(node, inode->lock, name, &file))
        return 0;
    ret_attr->size = file.content_len;
    if (file.create_token) {
        ret_attr->mode = file.mode;
        ret_attr->uid = file.uid;
        ret_attr->gid = file.gid;
    }
    return 0;
}

static int lockfs_attr(const struct node *node, enum control control, struct node_attr *ret_attr)
{
    bool directory = control == CONTROL_LOCKFS;
    /* They name the holders of locks that others may not look into. */
    bool private = control == CONTROL_LOCKS || control == CONTROL_EVENTS;
    *ret_attr = (struct node_attr){
        .ino = control_ino(LOCK_TABLE_ROOT, control),
        .type = directory ? NODE_DIRECTORY : NODE_FILE,
        .mode = directory ? 0555
                : private ? 0400
                          : 0444,
        .uid = node->config.uid,
        .nlink = directory ? 2 : 1,
        .mtime_ms = node->wall_ms,
        .ctime_ms = node->wall_ms,
    };
    if (control == CONTROL_EVENTS) {
        ret_attr->size = node->events.end;
        ret_attr->mtime_ms = ret_attr->ctime_ms = node->events.last_ms;
    }
    return 0;
}

int node__attr(const struct node *node, uint64_t number, struct node_attr *ret_attr)
{
    const struct inode *inode = tree_inode(&node->tree, number);
    enum control control = tree_control(number);
    struct lock_view lock;
    if (!inode)
        return -ESTALE;
    if (inode->parent)
        return file_attr(node, inode, ret_attr);
    if (control >= CONTROL_LOCKFS)
        return lockfs_attr(node, control, ret_attr);
    if (!lock_table_get_lock(node->table, inode->lock, &lock))
        return -ESTALE;
    *ret_attr = (struct node_attr){
        .ino = control ? control_ino(lock.id, control) : lock.id,
        .type = control ? NODE_FILE : NODE_DIRECTORY,
        .mode = control ? control__mode(control, lock.mode) : lock.mode,
        .uid = lock.uid,
        .gid = lock.gid,
        .nlink = control ? 1 : 2 + lock.locks_count,
        .mtime_ms = control ? node->wall_ms : lock.stamp_ms,
        .ctime_ms = control ? node->wall_ms : lock.stamp_ms,
    };
    if (!control && lock.id == LOCK_TABLE_ROOT)
        ret_attr->nlink++; /* .lockfs */
    return 0;
}

void node__reply_entry(struct node *node, uint32_t slot, uint64_t number, uint32_t valid_ms)
{
    struct node_reply reply = {
        .slot = slot, .type = NODE_REPLY_ENTRY, .inode = number, .entry_valid_ms = valid_ms};
    /* The reply's reference keeps a new inode alive while its attributes are looked at. */
    tree_at(&node->tree, tree_slot(number))->lookups++;
    int error = node__attr(node, number, &reply.attr);
    if (error) {
        tree_forget(&node->tree, number, 1);
        node__reply_error(node, slot, error);
        return;
    }
    node__reply(node, &reply);
}

/* The lock that a request's inode stands for. Answers and returns false where it is none. */
static bool get_parent(struct node *node, const struct node_request *request,
                       struct lock_view *ret_lock)
{
    const struct inode *inode = tree_inode(&node->tree, request->inode);
    int error = 0;
    if (!inode || inode->parent || !lock_table_get_lock(node->table, inode->lock, ret_lock))
        error = -ESTALE;
    else if (request->name.len > LIMIT_NAME_BYTES)
        error = -ENAMETOOLONG;
    if (error)
        node__reply_error(node, request->slot, error);
    return !error;
}

void node__lookup(struct node *node, const struct node_request *request)
{
    struct lock_view lock;
    struct file_view file;
    if (!get_parent(node, request, &lock))
        return;
    enum names_place place = node__place(request->inode);
    enum control control = names_control(place, request->name);
    if (control) {
        uint64_t number = tree_number(tree_slot(request->inode), control);
        node__reply_entry(node, request->slot, number, NODE_LOCK_ENTRY_VALID_MS);
        return;
    }
    if (place == NAMES_LOCKFS) {
        node__reply_error(node, request->slot, -ENOENT);
        return;
    }
    uint64_t child = lock_table_find(node->table, lock.id, request->name);
    if (!child && !node__visible_file(node, lock.id, request->name, &file)) {
        node__reply_error(node, request->slot, -ENOENT);
        return;
    }
    uint32_t slot = child ? tree_make_lock(&node->tree, child)
                          : tree_make_file(&node->tree, tree_slot(request->inode), request->name);
    if (!slot)
        node__reply_error(node, request->slot, -ENOLCK);
    else
        node__reply_entry(node, request->slot, tree_number(slot, CONTROL_NONE),
                          child ? NODE_LOCK_ENTRY_VALID_MS : 0);
}

void node__reply_attr(struct node *node, uint32_t slot, uint64_t number)
{
    struct node_reply reply = {.slot = slot, .type = NODE_REPLY_ATTR};
    int error = node__attr(node, number, &reply.attr);
    if (error)
        node__reply_error(node, slot, error);
    else
        node__reply(node, &reply);
}

void node__getattr(struct node *node, const struct node_request *request)
{
    node__reply_attr(node, request->slot, request->inode);
}

static uint32_t attributes_of(uint32_t valid)
{
    return (valid & NODE_SET_MODE ? ATTRIBUTE_MODE : 0) |
           (valid & NODE_SET_UID ? ATTRIBUTE_UID : 0) | (valid & NODE_SET_GID ? ATTRIBUTE_GID : 0);
}

static void setattr_file(struct node *node, const struct node_request *request,
                         const struct inode *inode)
{
    char buffer[LIMIT_NAME_BYTES];
    struct span name = tree_name(&node->tree, inode, buffer);
    struct lock_view lock;
    struct file_view file = {0};
    bool visible = node__visible_file(node, inode->lock, name, &file);
    struct handle *handle = request->handle ? node__handle(node, request->handle) : NULL;
    uint32_t attributes = attributes_of(request->setattr.valid);
    struct command command = {
        .uid = request->setattr.uid,
        .gid = request->setattr.gid,
        .mode = request->mode,
        .attributes = attributes,
    };
    if ((handle && (handle->lost || handle->unlinked)) ||
        !lock_table_get_lock(node->table, inode->lock, &lock)) {
        node__reply_error(node, request->slot, -ESTALE);
        return;
    }
    if (request->setattr.valid & NODE_SET_SIZE) {
        /* Only through a handle that has a claim: truncate(2) of a path has none. */
        command.handle = handle ? node__writes_for(node, handle) : 0;
        if (!command.handle) {
            node__reply_error(node, request->slot, -EPERM);
            return;
        }
        command.type = COMMAND_TRUNCATE;
        command.offset = request->setattr.size;
    } else if (attributes) {
        if (!file.create_token) {
            node__reply_error(node, request->slot, -EPERM);
            return;
        }
        command.type = COMMAND_SET_CLAIM;
        command.lock = inode->lock;
        command.name = name;
        command.token = file.create_token;
    } else {
        /* utimens: the renewal that it would stand for happens by itself. */
        bool own = visible && (file.create_token ? file.create_node == node->config.id : true);
        if (own)
            node__reply_attr(node, request->slot, request->inode);
        else
            node__reply_error(node, request->slot, -EPERM);
        return;
    }
    node__submit(node, request, &command, request->handle, false);
}

void node__setattr(struct node *node, const struct node_request *request)
{
    const struct inode *inode = tree_inode(&node->tree, request->inode);
    uint32_t attributes = attributes_of(request->setattr.valid);
    if (!inode) {
        node__reply_error(node, request->slot, -ESTALE);
        return;
    }
    if (inode->parent) {
        setattr_file(node, request, inode);
        return;
    }
    if (attributes && tree_control(request->inode)) {
        node__reply_error(node, request->slot, -EPERM);
        return;
    }
    if (!attributes) {
        /* O_TRUNC and utimens of a control file, utimens of a lock: no effect. */
        node__reply_attr(node, request->slot, request->inode);
        return;
    }
    struct command command = {
        .type = COMMAND_SET_LOCK,
        .lock = inode->lock,
        .attributes = attributes,
        .mode = request->mode,
        .uid = request->setattr.uid,
        .gid = request->setattr.gid,
    };
    node__submit(node, request, &command, 0, false);
}

void node__mkdir(struct node *node, const struct node_request *request)
{
    struct lock_view lock;
    if (!get_parent(node, request, &lock))
        return;
    int error = names_check(node__place(request->inode), lock.limit != 0, request->name);
    if (error) {
        node__reply_error(node, request->slot, error);
        return;
    }
    uint32_t name = 0;
    if (!chunks_resize(&node->tree.chunks, &name, 0, request->name.len)) {
        node__reply_error(node, request->slot, -ENOLCK);
        return;
    }
    chunks_write(&node->tree.chunks, name, 0, request->name);
    struct command command = {
        .type = COMMAND_MKDIR,
        .lock = lock.id,
        .name = request->name,
        .mode = request->mode,
        .uid = request->uid,
        .gid = request->gid,
    };
    struct request *submitted = node__submit(node, request, &command, 0, false);
    if (!submitted) {
        chunks_resize(&node->tree.chunks, &name, request->name.len, 0);
        return;
    }
    submitted->parent = lock.id;
    submitted->name = name;
    submitted->name_len = (uint32_t)request->name.len;
}

void node__rmdir(struct node *node, const struct node_request *request)
{
    struct lock_view lock;
    if (!get_parent(node, request, &lock))
        return;
    if (node__place(request->inode) == NAMES_LOCKFS ||
        names_control(node__place(request->inode), request->name)) {
        node__reply_error(node, request->slot, -EPERM);
        return;
    }
    struct command command = {.type = COMMAND_RMDIR, .lock = lock.id, .name = request->name};
    node__submit(node, request, &command, 0, false);
}

void node__unlink(struct node *node, const struct node_request *request)
{
    struct lock_view lock;
    struct file_view file;
    if (!get_parent(node, request, &lock))
        return;
    if (names_control(node__place(request->inode), request->name)) {
        node__reply_done(node, request->slot); /* so that rm -rf of a free lock works */
        return;
    }
    int error = 0;
    if (!node__visible_file(node, lock.id, request->name, &file))
        error = -ENOENT;
    else if (file.create_token && file.create_node != node->config.id)
        error = -EBUSY;
    if (error) {
        node__reply_error(node, request->slot, error);
        return;
    }
    if (!file.create_token) {
        node__reply_done(node, request->slot); /* held by flock only: nothing changes */
        return;
    }
    struct command command = {
        .type = COMMAND_UNLINK,
        .lock = lock.id,
        .name = request->name,
        .token = file.create_token,
    };
    node__submit(node, request, &command, 0, true);
}

void node__rename(struct node *node, const struct node_request *request)
{
    struct lock_view lock;
    struct file_view file;
    if (!get_parent(node, request, &lock))
        return;
    bool claimed = node__place(request->inode) != NAMES_LOCKFS &&
                   node__visible_file(node, lock.id, request->name, &file);
    node__reply_error(node, request->slot, claimed ? -EBUSY : -EPERM);
}

void node__make_other(struct node *node, const struct node_request *request)
{
    /* Where claims end by close, a name that has no descriptor cannot be one. */
    struct lock_view lock;
    if (get_parent(node, request, &lock))
        node__reply_error(node, request->slot, -EPERM);
}

/* A place in a directory: what kind of entry was given last, and its id or number. */
enum dirent_kind {
    DIRENT_FIXED = 0, /* 1 ".", 2 "..", then control files */
    DIRENT_LOCK,
    DIRENT_FILE,
};

enum { DIRENT_KIND_SHIFT = 60 };

static uint64_t dirent_offset(enum dirent_kind kind, uint64_t id)
{
    return (uint64_t)kind << DIRENT_KIND_SHIFT | id;
}

static void add_dirent(struct node *node, size_t at, struct span name, uint64_t ino,
                       enum node_file_type type, uint64_t next)
{
    memcpy(node->dirent_names[at], name.data, name.len);
    node->dirents[at] = (struct node_dirent){{node->dirent_names[at], name.len}, ino, type, next};
}

/* The entry that follows `offset`; false at the end. */
static bool next_dirent(struct node *node, uint64_t number, const struct lock_view *lock, size_t at,
                        uint64_t offset)
{
    enum names_place place = node__place(number);
    uint64_t id = offset & ((UINT64_C(1) << DIRENT_KIND_SHIFT) - 1);
    enum dirent_kind kind = (enum dirent_kind)(offset >> DIRENT_KIND_SHIFT);
    uint64_t self = place == NAMES_LOCKFS ? control_ino(lock->id, CONTROL_LOCKFS) : lock->id;

    if (kind == DIRENT_FIXED && id < 2) {
        bool up = id == 1;
        uint64_t parent = place == NAMES_LOCKFS || !lock->parent ? LOCK_TABLE_ROOT : lock->parent;
        add_dirent(node, at, (struct span){"..", up ? 2 : 1}, up ? parent : self, NODE_DIRECTORY,
                   dirent_offset(DIRENT_FIXED, id + 1));
        return true;
    }
    if (kind == DIRENT_FIXED) {
        for (uint64_t control = id - 1; control < CONTROL_COUNT; control++) {
            enum control found = (enum control)control;
            if (!names_listed(place, lock->limit != 0, found))
                continue;
            add_dirent(node, at, names_of_control(found), control_ino(lock->id, found),
                       found == CONTROL_LOCKFS ? NODE_DIRECTORY : NODE_FILE,
                       dirent_offset(DIRENT_FIXED, control + 2));
            return true;
        }
        if (place == NAMES_LOCKFS)
            return false;
        kind = DIRENT_LOCK;
        id = 0;
    }
    if (kind == DIRENT_LOCK) {
        struct lock_view child;
        if (lock_table_next_lock(node->table, lock->id, id, &child)) {
            add_dirent(node, at, (struct span){child.name, child.name_len}, child.id,
                       NODE_DIRECTORY, dirent_offset(DIRENT_LOCK, child.id));
            return true;
        }
        id = 0;
    }
    struct file_view file;
    struct file_view visible;
    while (lock_table_next_file(node->table, lock->id, id, &file)) {
        struct span name = {file.name, file.name_len};
        id = file.id;
        if (node__visible_file(node, lock->id, name, &visible)) {
            add_dirent(node, at, name, file_ino(lock->id, name), NODE_FILE,
                       dirent_offset(DIRENT_FILE, id));
            return true;
        }
    }
    return false;
}

void node__readdir(struct node *node, const struct node_request *request)
{
    const struct inode *inode = tree_inode(&node->tree, request->inode);
    struct lock_view lock;
    if (!inode || inode->parent || !lock_table_get_lock(node->table, inode->lock, &lock)) {
        node__reply_error(node, request->slot, -ESTALE);
        return;
    }
    size_t count = 0;
    uint64_t offset = request->readdir.offset;
    while (count < LIMIT_DIRENTS && next_dirent(node, request->inode, &lock, count, offset))
        offset = node->dirents[count++].next;
    node__reply(node, &(struct node_reply){.slot = request->slot,
                                           .type = NODE_REPLY_DIRENTS,
                                           .dirents = node->dirents,
                                           .dirents_count = count});
}

void node__statfs(struct node *node, const struct node_request *request)
{
    struct lock_table_counts counts;
    lock_table_get_counts(node->table, &counts);
    uint64_t contents = node->limits.table.contents_bytes;
    uint64_t used = counts.locks + counts.claims;
    struct node_statfs statfs = {
        .blocks = contents / LIMIT_CONTENT_BYTES,
        .blocks_free = (contents - counts.contents_bytes) / LIMIT_CONTENT_BYTES,
        .files = (uint64_t)node->limits.table.locks + node->limits.table.claims,
    };
    statfs.files_free = statfs.files > used ? statfs.files - used : 0;
    node__reply(node, &(struct node_reply){
                          .slot = request->slot, .type = NODE_REPLY_STATFS, .statfs = statfs});
}

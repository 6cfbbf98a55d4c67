/*
 * Each FUSE request as an event of the node.
 *
 * No handler is missing where the kernel would then do the thing on its own and mean something
 * else: ENOSYS turns an operation off for the whole mount. It may do without access (the mount has
 * default_permissions), bmap, fallocate (EOPNOTSUPP then), copy_file_range (reads and writes
 * instead) and lseek (the usual arithmetic).
 */
#include "fuse_internal.h"

#include <errno.h>
#include <string.h>
#include <sys/file.h>

#include "lockfs.h"
#include "names.h"

static struct node_event request_event(fuse_req_t request, enum node_op op, fuse_ino_t inode);
static void identify(fuse_req_t request, struct process *ret_process);
static void find_groups(fuse_req_t request, struct node_request *asked);
static void submit(fuse_req_t request, struct node_event *event);
static void give_up(fuse_req_t request, struct node_event *event);

static struct span name_span(const char *name)
{
    return (struct span){.data = name, .len = strlen(name)};
}

/* The kernel's offer. What is asked for beyond the offer makes libfuse answer with an error, so
 * that a mount that cannot be served never serves anything. */
static void op_init(void *userdata, struct fuse_conn_info *conn)
{
    struct fuse_edge *edge = userdata;
    const unsigned needed = FUSE_CAP_FLOCK_LOCKS | FUSE_CAP_POSIX_LOCKS;

    edge->init_seen = true;
    edge->init_refused = (conn->capable & needed) != needed || conn->proto_major != 7 ||
                         conn->proto_minor < FUSE_EDGE_PROTOCOL_MINOR;
    conn->want = needed | (conn->capable & FUSE_CAP_ATOMIC_O_TRUNC);
    if (edge->init_refused)
        conn->want |= ~conn->capable;
    edge->parallel_dirops = (conn->capable & FUSE_CAP_PARALLEL_DIROPS) != 0;

    conn->max_write = FUSE_EDGE_WRITE_BYTES;
    conn->max_background = LIMIT_MAX_BACKGROUND;
    conn->congestion_threshold = LIMIT_MAX_BACKGROUND;
}

/* Names and attributes */

static void op_lookup(fuse_req_t request, fuse_ino_t parent, const char *name)
{
    struct node_event event = request_event(request, NODE_OP_LOOKUP, parent);

    event.request.name = name_span(name);
    submit(request, &event);
}

static void forget(struct fuse_edge *edge, fuse_ino_t inode, uint64_t count)
{
    struct node_event event = {.type = NODE_EVENT_FORGET};

    event.forget.inode = inode;
    event.forget.count = count;
    fuse_edge__deliver(edge, &event);
}

static void op_forget(fuse_req_t request, fuse_ino_t inode, uint64_t count)
{
    forget(fuse_req_userdata(request), inode, count);
    fuse_reply_none(request);
}

static void op_forget_multi(fuse_req_t request, size_t count, struct fuse_forget_data *forgets)
{
    for (size_t i = 0; i < count; i++)
        forget(fuse_req_userdata(request), forgets[i].ino, forgets[i].nlookup);
    fuse_reply_none(request);
}

static void op_getattr(fuse_req_t request, fuse_ino_t inode, struct fuse_file_info *file)
{
    struct node_event event = request_event(request, NODE_OP_GETATTR, inode);

    (void)file;
    submit(request, &event);
}

static void op_setattr(fuse_req_t request, fuse_ino_t inode, struct stat *attr, int to_set,
                       struct fuse_file_info *file)
{
    struct node_event event = request_event(request, NODE_OP_SETATTR, inode);
    const int times = FUSE_SET_ATTR_ATIME | FUSE_SET_ATTR_MTIME;

    event.request.handle = file != NULL ? file->fh : 0;
    if (to_set & FUSE_SET_ATTR_MODE)
        event.request.setattr.valid |= NODE_SET_MODE;
    if (to_set & FUSE_SET_ATTR_UID)
        event.request.setattr.valid |= NODE_SET_UID;
    if (to_set & FUSE_SET_ATTR_GID)
        event.request.setattr.valid |= NODE_SET_GID;
    if (to_set & FUSE_SET_ATTR_SIZE)
        event.request.setattr.valid |= NODE_SET_SIZE;
    if (to_set & times)
        event.request.setattr.valid |= NODE_SET_TIMES;
    event.request.mode = attr->st_mode & 07777;
    event.request.setattr.uid = attr->st_uid;
    event.request.setattr.gid = attr->st_gid;
    event.request.setattr.size = (uint64_t)attr->st_size;
    submit(request, &event);
}

static void op_mkdir(fuse_req_t request, fuse_ino_t parent, const char *name, mode_t mode)
{
    struct node_event event = request_event(request, NODE_OP_MKDIR, parent);

    event.request.name = name_span(name);
    event.request.mode = mode & 07777;
    submit(request, &event);
}

static void op_rmdir(fuse_req_t request, fuse_ino_t parent, const char *name)
{
    struct node_event event = request_event(request, NODE_OP_RMDIR, parent);

    event.request.name = name_span(name);
    submit(request, &event);
}

static void op_unlink(fuse_req_t request, fuse_ino_t parent, const char *name)
{
    struct node_event event = request_event(request, NODE_OP_UNLINK, parent);

    identify(request, &event.request.process);
    event.request.name = name_span(name);
    submit(request, &event);
}

static void op_rename(fuse_req_t request, fuse_ino_t parent, const char *name,
                      fuse_ino_t new_parent, const char *new_name, unsigned flags)
{
    struct node_event event = request_event(request, NODE_OP_RENAME, parent);

    if (flags != 0) {
        fuse_reply_err(request, EINVAL); /* RENAME_EXCHANGE and the like: programs do without */
        return;
    }
    identify(request, &event.request.process);
    event.request.name = name_span(name);
    event.request.rename.inode = new_parent;
    event.request.rename.name = name_span(new_name);
    submit(request, &event);
}

static void op_link(fuse_req_t request, fuse_ino_t inode, fuse_ino_t new_parent,
                    const char *new_name)
{
    struct node_event event = request_event(request, NODE_OP_LINK, new_parent);

    (void)inode;
    event.request.name = name_span(new_name);
    submit(request, &event);
}

static void op_symlink(fuse_req_t request, const char *target, fuse_ino_t parent, const char *name)
{
    struct node_event event = request_event(request, NODE_OP_SYMLINK, parent);

    (void)target;
    event.request.name = name_span(name);
    submit(request, &event);
}

static void op_readlink(fuse_req_t request, fuse_ino_t inode)
{
    (void)inode;
    fuse_reply_err(request, EINVAL);
}

static void op_mknod(fuse_req_t request, fuse_ino_t parent, const char *name, mode_t mode,
                     dev_t device)
{
    struct node_event event = request_event(request, NODE_OP_MKNOD, parent);

    (void)device;
    event.request.name = name_span(name);
    event.request.mode = mode & 07777;
    submit(request, &event);
}

static void op_statfs(fuse_req_t request, fuse_ino_t inode)
{
    struct node_event event = request_event(request, NODE_OP_STATFS, inode);

    submit(request, &event);
}

/* Files */

static bool opens_to_write(const struct fuse_file_info *file)
{
    return (file->flags & O_ACCMODE) != O_RDONLY;
}

static void op_create(fuse_req_t request, fuse_ino_t parent, const char *name, mode_t mode,
                      struct fuse_file_info *file)
{
    struct node_event event = request_event(request, NODE_OP_CREATE, parent);

    identify(request, &event.request.process);
    event.request.name = name_span(name);
    event.request.mode = mode & 07777;
    event.request.open.exclusive = (file->flags & O_EXCL) != 0;
    event.request.open.write = opens_to_write(file);
    submit(request, &event);
}

static void op_open(fuse_req_t request, fuse_ino_t inode, struct fuse_file_info *file)
{
    struct node_event event = request_event(request, NODE_OP_OPEN, inode);

    identify(request, &event.request.process);
    find_groups(request, &event.request);
    event.request.open.write = opens_to_write(file);
    submit(request, &event);
}

/* A process that lost a claim makes bystanders read ESTALE only while it lives (DESIGN A4). */
static void report_ended(struct fuse_edge *edge, fuse_ino_t inode)
{
    struct process lost;
    struct process again;

    for (size_t n = 0; edge->handler->lost_process(edge->context, inode, n, &lost);) {
        if (lost.pid == 0 || process_alive(lost.pid, lost.start)) {
            n++;
            continue;
        }
        struct node_event event = {.type = NODE_EVENT_PROCESS_ENDED, .process_ended = lost};
        fuse_edge__deliver(edge, &event);
        /* The node's list has got shorter, and if it has not, this must end nevertheless. */
        if (edge->handler->lost_process(edge->context, inode, n, &again) && again.pid == lost.pid &&
            again.start == lost.start)
            n++;
    }
}

static void op_read(fuse_req_t request, fuse_ino_t inode, size_t size, off_t offset,
                    struct fuse_file_info *file)
{
    struct fuse_edge *edge = fuse_req_userdata(request);
    struct node_event event = request_event(request, NODE_OP_READ, inode);
    struct process ancestors[LIMIT_ANCESTORS];

    event.request.handle = file->fh;
    event.request.read.offset = (uint64_t)offset;
    event.request.read.size = (uint32_t)size;
    if (edge->handler->reads_token(edge->context, inode)) {
        identify(request, &event.request.process);
        if (event.request.process.pid != 0) {
            event.request.read.ancestors = ancestors;
            event.request.read.ancestors_count =
                process_ancestors(event.request.process.pid, ancestors, LIMIT_ANCESTORS);
        }
        report_ended(edge, inode);
    }
    fuse_edge__submit(edge, request, &event, size);
}

static void op_write(fuse_req_t request, fuse_ino_t inode, const char *data, size_t size,
                     off_t offset, struct fuse_file_info *file)
{
    struct node_event event = request_event(request, NODE_OP_WRITE, inode);

    event.request.handle = file->fh;
    event.request.write.offset = (uint64_t)offset;
    event.request.write.append = (file->flags & O_APPEND) != 0;
    event.request.write.data = (struct span){.data = data, .len = size};
    submit(request, &event);
}

static void op_flush(fuse_req_t request, fuse_ino_t inode, struct fuse_file_info *file)
{
    struct node_event event = request_event(request, NODE_OP_FLUSH, inode);

    event.request.handle = file->fh;
    event.request.fcntl.owner = file->lock_owner;
    give_up(request, &event); /* the POSIX locks that end with it */
}

static void op_fsync(fuse_req_t request, fuse_ino_t inode, int data_only,
                     struct fuse_file_info *file)
{
    struct node_event event = request_event(request, NODE_OP_FSYNC, inode);

    (void)data_only;
    event.request.handle = file->fh;
    submit(request, &event);
}

static void op_release(fuse_req_t request, fuse_ino_t inode, struct fuse_file_info *file)
{
    struct node_event event = request_event(request, NODE_OP_RELEASE, inode);

    event.request.handle = file->fh;
    fuse_edge__set_poller(fuse_req_userdata(request), file->fh, NULL);
    give_up(request, &event);
}

/* Directories */

static void op_opendir(fuse_req_t request, fuse_ino_t inode, struct fuse_file_info *file)
{
    struct node_event event = request_event(request, NODE_OP_OPENDIR, inode);

    event.request.open.exclusive = (file->flags & O_DIRECTORY) == 0;
    if (event.request.open.exclusive)
        identify(request, &event.request.process);
    submit(request, &event);
}

static void op_readdir(fuse_req_t request, fuse_ino_t inode, size_t size, off_t offset,
                       struct fuse_file_info *file)
{
    struct node_event event = request_event(request, NODE_OP_READDIR, inode);

    event.request.handle = file->fh;
    event.request.readdir.offset = (uint64_t)offset;
    fuse_edge__submit(fuse_req_userdata(request), request, &event, size);
}

static void op_releasedir(fuse_req_t request, fuse_ino_t inode, struct fuse_file_info *file)
{
    struct node_event event = request_event(request, NODE_OP_RELEASEDIR, inode);

    event.request.handle = file->fh;
    give_up(request, &event);
}

static void op_fsyncdir(fuse_req_t request, fuse_ino_t inode, int data_only,
                        struct fuse_file_info *file)
{
    (void)inode;
    (void)data_only;
    (void)file;
    fuse_reply_err(request, 0); /* what was answered is durable */
}

/* Locks */

static void op_flock(fuse_req_t request, fuse_ino_t inode, struct fuse_file_info *file, int how)
{
    struct node_event event = request_event(request, NODE_OP_FLOCK, inode);

    event.request.handle = file->fh;
    switch (how & ~LOCK_NB) {
    case LOCK_SH:
        event.request.flock.how = NODE_FLOCK_SHARED;
        break;
    case LOCK_EX:
        event.request.flock.how = NODE_FLOCK_EXCLUSIVE;
        break;
    case LOCK_UN:
        event.request.flock.how = NODE_FLOCK_UNLOCK;
        break;
    default:
        fuse_reply_err(request, EINVAL);
        return;
    }
    if (event.request.flock.how != NODE_FLOCK_UNLOCK) {
        event.request.flock.wait = (how & LOCK_NB) == 0;
        identify(request, &event.request.process);
        find_groups(request, &event.request);
    }
    submit(request, &event);
}

static void read_range(struct node_request *asked, const struct fuse_file_info *file,
                       const struct flock *range)
{
    asked->handle = file->fh;
    asked->fcntl.owner = file->lock_owner;
    asked->fcntl.whole_file = range->l_start == 0 && range->l_len == 0;
    asked->fcntl.how = range->l_type == F_UNLCK   ? NODE_FLOCK_UNLOCK
                       : range->l_type == F_RDLCK ? NODE_FLOCK_SHARED
                                                  : NODE_FLOCK_EXCLUSIVE;
}

static void op_setlk(fuse_req_t request, fuse_ino_t inode, struct fuse_file_info *file,
                     struct flock *range, int wait)
{
    struct node_event event = request_event(request, NODE_OP_SETLK, inode);

    read_range(&event.request, file, range);
    event.request.fcntl.wait = wait != 0;
    if (event.request.fcntl.how != NODE_FLOCK_UNLOCK) {
        identify(request, &event.request.process);
        find_groups(request, &event.request);
    }
    submit(request, &event);
}

static void op_getlk(fuse_req_t request, fuse_ino_t inode, struct fuse_file_info *file,
                     struct flock *range)
{
    struct node_event event = request_event(request, NODE_OP_GETLK, inode);

    read_range(&event.request, file, range);
    submit(request, &event);
}

/* A program of 32 bits on a kernel of 64 sends the same numbers and the same data. For a directory,
 * which libfuse does not even ask about, the answer is ENOTTY, too. */
static void op_ioctl(fuse_req_t request, fuse_ino_t inode, unsigned command, void *argument,
                     struct fuse_file_info *file, unsigned flags, const void *in, size_t in_size,
                     size_t out_size)
{
    struct node_event event = request_event(request, NODE_OP_IOC_TOKEN, inode);

    (void)argument;
    event.request.handle = file->fh;
    switch ((flags & FUSE_IOCTL_DIR) == 0 ? command : 0) {
    case LOCKFS_IOC_TOKEN:
        break;
    case LOCKFS_IOC_LEASE:
        event.request.op = NODE_OP_IOC_LEASE;
        break;
    case LOCKFS_IOC_ON_LOSS:
        event.request.op = NODE_OP_IOC_ON_LOSS;
        if (in_size < sizeof event.request.signal.number) {
            fuse_reply_err(request, EINVAL);
            return;
        }
        memcpy(&event.request.signal.number, in, sizeof event.request.signal.number);
        identify(request, &event.request.process);
        break;
    case LOCKFS_IOC_FORCE:
        event.request.op = NODE_OP_IOC_FORCE;
        if (in_size < sizeof event.request.force.token) {
            fuse_reply_err(request, EINVAL);
            return;
        }
        memcpy(&event.request.force.token, in, sizeof event.request.force.token);
        identify(request, &event.request.process);
        break;
    default:
        fuse_reply_err(request, ENOTTY);
        return;
    }
    bool answers = event.request.op == NODE_OP_IOC_TOKEN || event.request.op == NODE_OP_IOC_LEASE;
    if (answers && out_size < sizeof(uint64_t)) {
        fuse_reply_err(request, EINVAL);
        return;
    }
    submit(request, &event);
}

static void op_poll(fuse_req_t request, fuse_ino_t inode, struct fuse_file_info *file,
                    struct fuse_pollhandle *pollhandle)
{
    struct node_event event = request_event(request, NODE_OP_POLL, inode);

    event.request.handle = file->fh;
    if (pollhandle != NULL)
        fuse_edge__set_poller(fuse_req_userdata(request), file->fh, pollhandle);
    submit(request, &event);
}

/* Extended attributes: those of lockfs only. For others not ENOSYS, which is for good, and as cheap
 * as can be: ftruncate and write ask for security.capability, and ls for more. */

static bool is_own_xattr(const char *name)
{
    return strncmp(name, NAMES_XATTR_PREFIX, strlen(NAMES_XATTR_PREFIX)) == 0;
}

static void op_getxattr(fuse_req_t request, fuse_ino_t inode, const char *name, size_t size)
{
    struct node_event event = request_event(request, NODE_OP_GETXATTR, inode);

    if (!is_own_xattr(name)) {
        fuse_reply_err(request, ENODATA);
        return;
    }
    event.request.name = name_span(name);
    find_groups(request, &event.request);
    fuse_edge__submit(fuse_req_userdata(request), request, &event, size);
}

static void op_listxattr(fuse_req_t request, fuse_ino_t inode, size_t size)
{
    struct node_event event = request_event(request, NODE_OP_LISTXATTR, inode);

    find_groups(request, &event.request);
    fuse_edge__submit(fuse_req_userdata(request), request, &event, size);
}

static void op_setxattr(fuse_req_t request, fuse_ino_t inode, const char *name, const char *value,
                        size_t size, int flags)
{
    (void)inode;
    (void)value;
    (void)size;
    (void)flags;
    fuse_reply_err(request, is_own_xattr(name) ? EPERM : EOPNOTSUPP);
}

static void op_removexattr(fuse_req_t request, fuse_ino_t inode, const char *name)
{
    (void)inode;
    fuse_reply_err(request, is_own_xattr(name) ? EPERM : EOPNOTSUPP);
}

const struct fuse_lowlevel_ops fuse_edge__ops = {
    .init = op_init,
    .lookup = op_lookup,
    .forget = op_forget,
    .forget_multi = op_forget_multi,
    .getattr = op_getattr,
    .setattr = op_setattr,
    .mkdir = op_mkdir,
    .rmdir = op_rmdir,
    .unlink = op_unlink,
    .rename = op_rename,
    .link = op_link,
    .symlink = op_symlink,
    .readlink = op_readlink,
    .mknod = op_mknod,
    .statfs = op_statfs,
    .create = op_create,
    .open = op_open,
    .read = op_read,
    .write = op_write,
    .flush = op_flush,
    .fsync = op_fsync,
    .release = op_release,
    .opendir = op_opendir,
    .readdir = op_readdir,
    .releasedir = op_releasedir,
    .fsyncdir = op_fsyncdir,
    .flock = op_flock,
    .setlk = op_setlk,
    .getlk = op_getlk,
    .ioctl = op_ioctl,
    .poll = op_poll,
    .getxattr = op_getxattr,
    .listxattr = op_listxattr,
    .setxattr = op_setxattr,
    .removexattr = op_removexattr,
};

static struct node_event request_event(fuse_req_t request, enum node_op op, fuse_ino_t inode)
{
    const struct fuse_ctx *caller = fuse_req_ctx(request);
    struct node_event event;

    memset(&event, 0, sizeof event); /* an initialiser need not clear all of a union */
    event.type = NODE_EVENT_REQUEST;
    event.request.op = op;
    /* A thread's number: enough where identify() is not called. */
    event.request.process.pid = (uint32_t)caller->pid;
    event.request.uid = caller->uid;
    event.request.gid = caller->gid;
    event.request.inode = inode;
    return event;
}

/* The process of the calling thread. One that cannot be found out is pid 0, and no error. */
static void identify(fuse_req_t request, struct process *ret_process)
{
    struct fuse_edge *edge = fuse_req_userdata(request);

    process_cache_identify(&edge->processes, (uint32_t)fuse_req_ctx(request)->pid, ret_process);
}

static void submit(fuse_req_t request, struct node_event *event)
{
    fuse_edge__submit(fuse_req_userdata(request), request, event, 0);
}

/* For what the kernel gives up: it cannot be refused, so it needs no slot, and nobody waits for the
 * answer. */
static void give_up(fuse_req_t request, struct node_event *event)
{
    event->request.slot = NODE_NO_SLOT;
    fuse_edge__deliver(fuse_req_userdata(request), event);
    fuse_reply_err(request, 0);
}

/* The caller's groups, which the kernel does not send: only where the answer hangs on them, since
 * libfuse reads them from /proc. */
static void find_groups(fuse_req_t request, struct node_request *asked)
{
    struct fuse_edge *edge = fuse_req_userdata(request);

    if (!edge->handler->wants_groups(edge->context, asked))
        return;
    int count = fuse_req_getgroups(request, FUSE_EDGE_GROUPS, edge->groups);
    if (count <= 0)
        return;
    asked->groups = edge->groups;
    asked->groups_count = count < FUSE_EDGE_GROUPS ? (size_t)count : FUSE_EDGE_GROUPS;
}

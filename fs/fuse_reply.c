/* The node's answers as FUSE replies. */
#include "fuse_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

static bool may_say(int error, bool interrupted);
static struct stat stat_of(const struct node_attr *attr);
static struct fuse_entry_param entry_of(const struct node_reply *reply);
static int send_done(const struct fuse_slot *slot);
static int send_number(const struct fuse_slot *slot, uint64_t number);
static int send_data(const struct fuse_slot *slot, struct span data);
static int send_dirents(struct fuse_edge *edge, const struct fuse_slot *slot,
                        const struct node_reply *reply);
static int send_statfs(fuse_req_t request, const struct node_statfs *statfs);
static int send_lock(fuse_req_t request, const struct node_reply *reply);

int fuse_edge__send(struct fuse_edge *edge, const struct fuse_slot *slot,
                    const struct node_reply *reply)
{
    /* Contents change without this kernel's knowledge, so none are cached. */
    struct fuse_file_info file = {.fh = reply->handle, .noflush = reply->no_flush};
    struct fuse_entry_param entry;
    struct stat attr;

    switch (reply->type) {
    case NODE_REPLY_ERROR:
        assert(may_say(reply->error, slot->interrupted));
        return fuse_reply_err(slot->request, -reply->error);
    case NODE_REPLY_DONE:
        return send_done(slot);
    case NODE_REPLY_ENTRY:
        entry = entry_of(reply);
        return fuse_reply_entry(slot->request, &entry);
    case NODE_REPLY_ATTR:
        attr = stat_of(&reply->attr);
        return fuse_reply_attr(slot->request, &attr, reply->attr_valid_ms / 1000.0);
    case NODE_REPLY_OPENED:
        assert(slot->op == NODE_OP_OPEN || slot->op == NODE_OP_OPENDIR);
        assert(fuse_edge__is_handle(edge, reply->handle));
        file.direct_io = slot->op == NODE_OP_OPEN;
        file.nonseekable = reply->no_seek;
        return fuse_reply_open(slot->request, &file);
    case NODE_REPLY_CREATED:
        assert(slot->op == NODE_OP_CREATE);
        assert(fuse_edge__is_handle(edge, reply->handle));
        file.direct_io = 1;
        entry = entry_of(reply);
        return fuse_reply_create(slot->request, &entry, &file);
    case NODE_REPLY_DATA:
        return send_data(slot, reply->data);
    case NODE_REPLY_WRITTEN:
        assert(slot->op == NODE_OP_WRITE);
        return fuse_reply_write(slot->request, reply->number);
    case NODE_REPLY_DIRENTS:
        assert(slot->op == NODE_OP_READDIR);
        return send_dirents(edge, slot, reply);
    case NODE_REPLY_STATFS:
        return send_statfs(slot->request, &reply->statfs);
    case NODE_REPLY_NUMBER:
        return send_number(slot, reply->number);
    case NODE_REPLY_LOCK:
        assert(slot->op == NODE_OP_GETLK);
        return send_lock(slot->request, reply);
    }
    assert(false);
    return 0;
}

/* The errors that callers may see. ENOSYS would turn an operation off for good, a number from 512
 * on would hang the caller, and EINTR makes callers try again who were never interrupted. */
static bool may_say(int error, bool interrupted)
{
    switch (-error) {
    case EPERM:
    case ENOENT:
    case EIO:
    case EBADF:
    case EAGAIN:
    case EACCES:
    case EBUSY:
    case EEXIST:
    case ENOTDIR:
    case EISDIR:
    case EINVAL:
    case EFBIG:
    case ENOSPC:
    case EROFS:
    case EDEADLK:
    case ENAMETOOLONG:
    case ENOLCK:
    case ENOTEMPTY:
    case ENODATA:
    case ETIMEDOUT:
    case EOPNOTSUPP:
    case ESTALE:
    case EDQUOT:
        return true;
    case EINTR:
        return interrupted;
    default:
        return false;
    }
}

static struct timespec timespec_of(int64_t ms)
{
    int64_t rest = ms % 1000;

    if (rest < 0)
        rest += 1000;
    return (struct timespec){.tv_sec = (ms - rest) / 1000, .tv_nsec = rest * 1000000};
}

static struct stat stat_of(const struct node_attr *attr)
{
    struct stat stat = {
        .st_ino = attr->ino,
        .st_mode = attr->mode | (attr->type == NODE_DIRECTORY ? S_IFDIR : S_IFREG),
        .st_nlink = attr->nlink,
        .st_uid = attr->uid,
        .st_gid = attr->gid,
        .st_size = (off_t)attr->size,
        .st_blksize = 4096,
        .st_blocks = (blkcnt_t)((attr->size + 511) / 512),
        .st_atim = timespec_of(attr->mtime_ms),
        .st_mtim = timespec_of(attr->mtime_ms),
        .st_ctim = timespec_of(attr->ctime_ms),
    };

    assert((attr->mode & ~07777u) == 0);
    return stat;
}

static struct fuse_entry_param entry_of(const struct node_reply *reply)
{
    assert(reply->inode != 0);
    return (struct fuse_entry_param){
        .ino = reply->inode,
        .attr = stat_of(&reply->attr),
        .attr_timeout = reply->attr_valid_ms / 1000.0,
        .entry_timeout = reply->entry_valid_ms / 1000.0,
    };
}

static int send_done(const struct fuse_slot *slot)
{
    if (slot->op == NODE_OP_IOC_ON_LOSS || slot->op == NODE_OP_IOC_FORCE)
        return fuse_reply_ioctl(slot->request, 0, NULL, 0);
    return fuse_reply_err(slot->request, 0);
}

static int send_number(const struct fuse_slot *slot, uint64_t number)
{
    const unsigned ready = POLLIN | POLLOUT | POLLRDNORM | POLLWRNORM;

    if (slot->op == NODE_OP_POLL)
        return fuse_reply_poll(slot->request, number == 1 ? ready | POLLERR | POLLHUP : ready);
    assert(slot->op == NODE_OP_IOC_TOKEN || slot->op == NODE_OP_IOC_LEASE);
    return fuse_reply_ioctl(slot->request, 0, &number, sizeof number);
}

static int send_data(const struct fuse_slot *slot, struct span data)
{
    bool xattr = slot->op == NODE_OP_GETXATTR || slot->op == NODE_OP_LISTXATTR;

    if (xattr && slot->size == 0)
        return fuse_reply_xattr(slot->request, data.len);
    if (xattr && data.len > slot->size)
        return fuse_reply_err(slot->request, ERANGE);
    assert(xattr || slot->op == NODE_OP_READ);
    assert(data.len <= slot->size);
    return fuse_reply_buf(slot->request, data.data, data.len);
}

static int send_dirents(struct fuse_edge *edge, const struct fuse_slot *slot,
                        const struct node_reply *reply)
{
    size_t room = slot->size < sizeof edge->dirents ? slot->size : sizeof edge->dirents;
    size_t used = 0;

    for (size_t i = 0; i < reply->dirents_count; i++) {
        const struct node_dirent *dirent = &reply->dirents[i];
        struct stat stat = {
            .st_ino = dirent->ino,
            .st_mode = dirent->type == NODE_DIRECTORY ? S_IFDIR : S_IFREG,
        };
        char name[LIMIT_NAME_BYTES + 1];

        assert(dirent->name.len > 0 && dirent->name.len < sizeof name);
        memcpy(name, dirent->name.data, dirent->name.len);
        name[dirent->name.len] = '\0';
        size_t size = fuse_add_direntry(slot->request, edge->dirents + used, room - used, name,
                                        &stat, (off_t)dirent->next);
        if (size > room - used)
            break;
        used += size;
    }
    /* Nothing at all would mean that the directory ends here. */
    if (used == 0 && reply->dirents_count > 0)
        return fuse_reply_err(slot->request, EINVAL);
    return fuse_reply_buf(slot->request, edge->dirents, used);
}

static int send_statfs(fuse_req_t request, const struct node_statfs *statfs)
{
    struct statvfs answer = {
        .f_bsize = 4096,
        .f_frsize = 4096,
        .f_blocks = statfs->blocks,
        .f_bfree = statfs->blocks_free,
        .f_bavail = statfs->blocks_free,
        .f_files = statfs->files,
        .f_ffree = statfs->files_free,
        .f_favail = statfs->files_free,
        .f_namemax = LIMIT_NAME_BYTES,
    };

    return fuse_reply_statfs(request, &answer);
}

static int send_lock(fuse_req_t request, const struct node_reply *reply)
{
    struct flock range = {.l_whence = SEEK_SET, .l_pid = (pid_t)reply->pid};

    range.l_type = reply->number == NODE_FLOCK_UNLOCK   ? F_UNLCK
                   : reply->number == NODE_FLOCK_SHARED ? F_RDLCK
                                                        : F_WRLCK;
    return fuse_reply_lock(request, &range);
}

/*
 * The floor of a request: a FUSE server that answers as lockfsd does, and does nothing.
 *
 *     noop_fuse MOUNT
 *
 * It takes the same requests in the same way: libfuse's low-level interface, one thread, a
 * descriptor that is read until EAGAIN at each wake-up. Its replies carry the same flags and
 * validities, so that the kernel sends the same requests: a file is there from its exclusive
 * create, or its flock, to its close. It never waits, and so excludes nobody: each client needs
 * files of its own. Serves until it is unmounted or gets SIGTERM.
 */
#define FUSE_USE_VERSION 314

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <fuse_lowlevel.h>
#include <linux/fuse.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "fs/limits.h"
#include "fs/node_internal.h"

enum {
    ITEMS = 1 << 14,
    NAME_BYTES = 64,
};

/* A directory or file. Its inode number is its place, and stays its own for good. */
struct item {
    fuse_ino_t parent;
    char name[NAME_BYTES];
    bool used;
    bool is_directory;
    bool held;
    mode_t mode;
};

struct server {
    struct item items[ITEMS];
    bool init_answered;
};

static volatile sig_atomic_t stopped;

static void on_signal(int number)
{
    (void)number;
    stopped = 1;
}

/* Names */

static struct item *item_at(struct server *server, fuse_ino_t inode)
{
    assert(inode < ITEMS);
    return &server->items[inode];
}

/* The inode of a name: 0 where it was never seen and is not to be `add`ed. */
static fuse_ino_t find(struct server *server, fuse_ino_t parent, const char *name, bool add)
{
    uint64_t hash = parent;

    for (const char *c = name; *c; c++)
        hash = (hash ^ (unsigned char)*c) * 0x100000001b3u;
    hash ^= hash >> 29;
    for (size_t i = 0; i < ITEMS; i++) {
        fuse_ino_t place = (hash + i) % ITEMS;
        struct item *item = item_at(server, place);
        if (place <= FUSE_ROOT_ID)
            continue;
        if (item->used && item->parent == parent && strcmp(item->name, name) == 0)
            return place;
        if (item->used)
            continue;
        if (!add || strlen(name) >= NAME_BYTES)
            return 0;
        *item = (struct item){.parent = parent, .used = true};
        strcpy(item->name, name);
        return place;
    }
    return 0;
}

static struct stat stat_of(struct server *server, fuse_ino_t inode)
{
    const struct item *item = item_at(server, inode);

    return (struct stat){
        .st_ino = inode,
        .st_mode = item->is_directory ? S_IFDIR | 01777 : S_IFREG | (item->mode & 07777),
        .st_nlink = item->is_directory ? 2 : 1,
        .st_blksize = 4096,
    };
}

static struct fuse_entry_param entry_of(struct server *server, fuse_ino_t inode)
{
    bool is_directory = item_at(server, inode)->is_directory;

    return (struct fuse_entry_param){
        .ino = inode,
        .attr = stat_of(server, inode),
        .entry_timeout = is_directory ? NODE_LOCK_ENTRY_VALID_MS / 1000.0 : 0,
    };
}

/* Requests */

static void op_init(void *userdata, struct fuse_conn_info *conn)
{
    (void)userdata;
    conn->want = FUSE_CAP_FLOCK_LOCKS | FUSE_CAP_POSIX_LOCKS | FUSE_CAP_ATOMIC_O_TRUNC;
    conn->max_background = LIMIT_MAX_BACKGROUND;
    conn->congestion_threshold = LIMIT_MAX_BACKGROUND;
}

static void op_lookup(fuse_req_t request, fuse_ino_t parent, const char *name)
{
    struct server *server = fuse_req_userdata(request);
    fuse_ino_t inode = find(server, parent, name, false);

    if (!inode || !(item_at(server, inode)->is_directory || item_at(server, inode)->held)) {
        fuse_reply_err(request, ENOENT);
        return;
    }
    struct fuse_entry_param entry = entry_of(server, inode);
    fuse_reply_entry(request, &entry);
}

static void op_getattr(fuse_req_t request, fuse_ino_t inode, struct fuse_file_info *file)
{
    struct stat stat = stat_of(fuse_req_userdata(request), inode);

    (void)file;
    fuse_reply_attr(request, &stat, 0);
}

static void op_mkdir(fuse_req_t request, fuse_ino_t parent, const char *name, mode_t mode)
{
    struct server *server = fuse_req_userdata(request);
    fuse_ino_t inode = find(server, parent, name, true);

    (void)mode;
    if (!inode) {
        fuse_reply_err(request, ENOSPC);
        return;
    }
    item_at(server, inode)->is_directory = true;
    struct fuse_entry_param entry = entry_of(server, inode);
    fuse_reply_entry(request, &entry);
}

static void op_create(fuse_req_t request, fuse_ino_t parent, const char *name, mode_t mode,
                      struct fuse_file_info *file)
{
    struct server *server = fuse_req_userdata(request);
    bool exclusive = (file->flags & O_EXCL) != 0;
    fuse_ino_t inode = find(server, parent, name, true);

    if (!inode) {
        fuse_reply_err(request, ENOSPC);
        return;
    }
    struct item *item = item_at(server, inode);
    item->mode = mode;
    item->held = item->held || exclusive;
    file->fh = 1;
    file->direct_io = 1;
    file->noflush = exclusive;
    struct fuse_entry_param entry = entry_of(server, inode);
    entry.attr_timeout = exclusive ? NODE_CREATE_ATTR_VALID_MS / 1000.0 : 0;
    fuse_reply_create(request, &entry, file);
}

static void op_open(fuse_req_t request, fuse_ino_t inode, struct fuse_file_info *file)
{
    (void)inode;
    file->fh = 1;
    file->direct_io = 1;
    fuse_reply_open(request, file);
}

static void op_flush(fuse_req_t request, fuse_ino_t inode, struct fuse_file_info *file)
{
    (void)inode;
    (void)file;
    fuse_reply_err(request, 0);
}

static void op_release(fuse_req_t request, fuse_ino_t inode, struct fuse_file_info *file)
{
    (void)file;
    item_at(fuse_req_userdata(request), inode)->held = false;
    fuse_reply_err(request, 0);
}

static void op_flock(fuse_req_t request, fuse_ino_t inode, struct fuse_file_info *file, int how)
{
    (void)file;
    item_at(fuse_req_userdata(request), inode)->held = (how & ~LOCK_NB) != LOCK_UN;
    fuse_reply_err(request, 0);
}

static void op_setlk(fuse_req_t request, fuse_ino_t inode, struct fuse_file_info *file,
                     struct flock *range, int wait)
{
    (void)inode;
    (void)file;
    (void)range;
    (void)wait;
    fuse_reply_err(request, EOPNOTSUPP);
}

static const struct fuse_lowlevel_ops ops = {
    .init = op_init,
    .lookup = op_lookup,
    .getattr = op_getattr,
    .mkdir = op_mkdir,
    .create = op_create,
    .open = op_open,
    .flush = op_flush,
    .release = op_release,
    .flock = op_flock,
    .setlk = op_setlk,
};

/* The session */

static ssize_t read_request(int fd, void *buffer, size_t size, void *userdata)
{
    (void)userdata;
    return read(fd, buffer, size);
}

/* As the daemon does: libfuse 3.14 leaves this bit out of its first reply. */
static ssize_t write_reply(int fd, struct iovec *parts, int count, void *userdata)
{
    struct server *server = userdata;

    if (!server->init_answered && count == 2 &&
        parts[1].iov_len >= offsetof(struct fuse_init_out, flags) + sizeof(uint32_t)) {
        struct fuse_init_out *answer = parts[1].iov_base;
        answer->flags |= FUSE_PARALLEL_DIROPS;
        server->init_answered = true;
    }
    return writev(fd, parts, count);
}

static void serve(struct fuse_session *session)
{
    struct fuse_buf buffer = {0};
    int fd = fuse_session_fd(session);
    struct epoll_event event = {.events = EPOLLIN};
    int poller = epoll_create1(EPOLL_CLOEXEC);

    if (poller < 0 || epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event) != 0)
        return;
    while (!stopped && !fuse_session_exited(session)) {
        if (epoll_wait(poller, &event, 1, -1) < 0)
            continue;
        int size;
        while ((size = fuse_session_receive_buf(session, &buffer)) > 0)
            fuse_session_process_buf(session, &buffer);
        if (size != -EAGAIN && size != -EINTR)
            break;
    }
    close(poller);
    free(buffer.mem);
}

/* Mounts and serves. Returns an exit status. */
static int run(struct fuse_session *session, const char *mount)
{
    static const struct fuse_custom_io io = {.read = read_request, .writev = write_reply};

    if (fuse_session_mount(session, mount) != 0)
        return 1;
    int fd = fuse_session_fd(session);
    int status = 1;
    if (fcntl(fd, F_SETFL, O_RDWR | O_NONBLOCK) == 0 &&
        fuse_session_custom_io(session, &io, fd) == 0) {
        serve(session);
        status = 0;
    }
    fuse_session_unmount(session);
    return status;
}

int main(int argc, char **argv)
{
    static struct server server;
    char name[] = "noop_fuse";
    char option[] = "-o";
    char options[] = "fsname=noop,subtype=noop,nosuid,nodev,noatime,default_permissions,"
                     "allow_other";
    char *args_list[] = {name, option, options, NULL};
    struct fuse_args args = FUSE_ARGS_INIT(3, args_list);
    struct sigaction action = {.sa_handler = on_signal};

    if (argc != 2) {
        fprintf(stderr, "Usage: noop_fuse MOUNT\n");
        return 2;
    }
    server.items[FUSE_ROOT_ID] = (struct item){.used = true, .is_directory = true};
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGINT, &action, NULL);
    struct fuse_session *session = fuse_session_new(&args, &ops, sizeof ops, &server);
    int status = 1;
    if (session) {
        status = run(session, argv[1]);
        fuse_session_destroy(session);
    }
    fuse_opt_free_args(&args);
    return status;
}

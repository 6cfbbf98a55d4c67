/*
 * The FUSE edge, on a real mount with a handler that answers only what it likes: what callers are
 * told when no slot for their request is left, and what gets through nevertheless.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <uv.h>

#include "fs/fuse_edge.h"
#include "tests/lib/tap.h"

enum {
    SLOTS = 32,
    WAITS = SLOTS - SLOTS / 16, /* what waits leaves some room */
    FILE_INODE = 2,
    PATIENCE_S = 60,
};

/* What the child and the handler tell each other. */
struct shared {
    int waiting; /* blocked flock calls that the handler has */
    int flushes;
    int releases;
    int error_of_wait;
    int error_of_unlock;
    int error_of_look;
    int error_of_close;
    int flushed_by_close;
    int error_afterwards;
};

struct world {
    struct fuse_edge *edge;
    uv_loop_t loop;
    uv_signal_t child_ended;
    uint64_t handles;
    struct shared *shared;
    char mount[64];
    char file[80];
};

static void answer(struct world *world, uint32_t slot, struct node_reply reply)
{
    reply.slot = slot;
    if (slot != NODE_NO_SLOT)
        fuse_edge_reply(world->edge, &reply);
}

static void on_request(struct world *world, const struct node_request *request)
{
    struct node_reply reply = {.type = NODE_REPLY_DONE};
    bool root = request->inode == NODE_ROOT_INODE && request->op != NODE_OP_LOOKUP;
    reply.attr = (struct node_attr){.ino = root ? 1 : FILE_INODE,
                                    .type = root ? NODE_DIRECTORY : NODE_FILE,
                                    .mode = root ? 0755 : 0666,
                                    .nlink = 1,
                                    .size = (uint64_t)world->shared->waiting};
    switch (request->op) {
    case NODE_OP_LOOKUP:
        reply.type = NODE_REPLY_ENTRY;
        reply.inode = FILE_INODE;
        break;
    case NODE_OP_GETATTR:
        reply.type = NODE_REPLY_ATTR;
        break;
    case NODE_OP_OPEN:
        reply.type = NODE_REPLY_OPENED;
        reply.handle = ++world->handles;
        break;
    case NODE_OP_FLOCK:
        if (request->flock.wait) {
            world->shared->waiting++;
            return;
        }
        break;
    case NODE_OP_READ:
        return; /* it waits, too */
    case NODE_OP_FLUSH:
        world->shared->flushes++;
        break;
    case NODE_OP_RELEASE:
        world->shared->releases++;
        break;
    default:
        reply = (struct node_reply){.type = NODE_REPLY_ERROR, .error = -EIO};
    }
    answer(world, request->slot, reply);
}

static void on_event(void *context, struct node_event *event)
{
    if (event->type == NODE_EVENT_REQUEST)
        on_request(context, &event->request);
    else if (event->type == NODE_EVENT_INTERRUPT)
        answer(context, event->interrupt.slot,
               (struct node_reply){.type = NODE_REPLY_ERROR, .error = -EINTR});
}

static void on_turn_end(void *context)
{
    (void)context;
}

static bool on_wants_groups(void *context, const struct node_request *request)
{
    (void)context;
    (void)request;
    return false;
}

static bool on_reads_token(void *context, uint64_t inode)
{
    (void)context;
    (void)inode;
    return false;
}

static bool on_lost_process(void *context, uint64_t inode, size_t n, struct process *ret_process)
{
    (void)context;
    (void)inode;
    (void)n;
    (void)ret_process;
    return false;
}

static void on_gone(void *context, int error)
{
    (void)context;
    tap_ok(false, "the mount is there: %d", error);
}

static void on_child_ended(uv_signal_t *handle, int number)
{
    (void)number;
    uv_stop(handle->loop);
}

/* In the child */

static void *wait_for_lock(void *argument)
{
    flock(*(int *)argument, LOCK_EX);
    return NULL;
}

static void *wait_for_data(void *argument)
{
    char byte;
    if (pread(*(int *)argument, &byte, 1, 0) < 0)
        return NULL;
    return argument;
}

static int error_of(int result)
{
    return result < 0 ? errno : 0;
}

static long looked_size(int fd)
{
    struct stat stat;
    return fstat(fd, &stat) ? -errno : stat.st_size;
}

static void fill_slots(const struct world *world)
{
    struct shared *shared = world->shared;
    int fd = open(world->file, O_RDWR);
    int other = open(world->file, O_RDWR);
    pthread_t thread;
    alarm(PATIENCE_S);
    for (int i = 0; i < WAITS; i++)
        pthread_create(&thread, NULL, wait_for_lock, &fd);
    while (looked_size(fd) != WAITS)
        sched_yield();
    shared->error_of_wait = error_of(flock(fd, LOCK_EX));
    shared->error_of_unlock = error_of(flock(fd, LOCK_UN));
    for (int i = 0; i < SLOTS - WAITS; i++)
        pthread_create(&thread, NULL, wait_for_data, &fd);
    long looked;
    while ((looked = looked_size(fd)) == WAITS)
        sched_yield();
    shared->error_of_look = (int)-looked;
    shared->error_of_close = error_of(close(other));
    shared->flushed_by_close = shared->flushes;
    while (*(volatile int *)&shared->releases == 0)
        sched_yield();
    _exit(0); /* which interrupts the threads */
}

static void look_again(const struct world *world)
{
    int fd = open(world->file, O_RDWR);
    alarm(PATIENCE_S);
    world->shared->error_afterwards = fd < 0 ? errno : error_of(flock(fd, LOCK_UN));
    _exit(0);
}

static bool in_child(struct world *world, void (*act)(const struct world *world))
{
    int status;
    uv_signal_start(&world->child_ended, on_child_ended, SIGCHLD);
    pid_t child = fork();
    if (child == 0)
        act(world);
    while (waitpid(child, &status, WNOHANG) == 0)
        uv_run(&world->loop, UV_RUN_DEFAULT);
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

static void test_slots(struct world *world)
{
    struct shared *shared = world->shared;
    tap_ok(in_child(world, fill_slots), "a process with %d requests at once", SLOTS);
    tap_equal(shared->waiting, WAITS, "%d of %d slots are for waiting", WAITS, SLOTS);
    tap_equal(shared->error_of_wait, ENOLCK, "one more that waits: ENOLCK");
    tap_equal(shared->error_of_unlock, 0, "an unlock finds room");
    tap_equal(shared->error_of_look, ENOLCK, "when all slots are taken, a look: ENOLCK");
    tap_equal(shared->error_of_close, 0, "but close() succeeds");
    tap_equal(shared->flushed_by_close, 1, "its FLUSH has arrived, which ends POSIX locks");
    tap_ok(shared->releases >= 1, "so does its RELEASE");
    tap_ok(in_child(world, look_again), "a process afterwards");
    tap_equal(shared->error_afterwards, 0, "has room again");
}

int main(void)
{
    static const struct fuse_edge_handler handler = {
        .event = on_event,
        .turn_end = on_turn_end,
        .wants_groups = on_wants_groups,
        .reads_token = on_reads_token,
        .lost_process = on_lost_process,
        .gone = on_gone,
    };
    struct world world = {.mount = "/tmp/lockfs-edge.XXXXXX"};
    char message[256];
    if (geteuid() != 0 || access("/dev/fuse", R_OK | W_OK) != 0) {
        printf("1..0 # SKIP mounting needs root and /dev/fuse\n");
        return 0;
    }
    world.shared =
        mmap(NULL, sizeof *world.shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (world.shared == MAP_FAILED || mkdtemp(world.mount) == NULL)
        return 1;
    snprintf(world.file, sizeof world.file, "%s/f", world.mount);
    uv_loop_init(&world.loop);
    uv_signal_init(&world.loop, &world.child_ended);
    world.child_ended.data = &world;
    struct fuse_edge_options options = {.mount_point = world.mount,
                                        .requests_max = SLOTS,
                                        .handles_max = 1000,
                                        .init_timeout_ms = 10000};
    int error = fuse_edge_mount(&world.edge, &world.loop, &options, &handler, &world, message,
                                sizeof message);
    if (tap_ok(!error, "mounted%s%s", error ? ": " : "", error ? message : "")) {
        test_slots(&world);
        fuse_edge_unmount(world.edge);
    }
    uv_close((uv_handle_t *)&world.child_ended, NULL);
    uv_run(&world.loop, UV_RUN_DEFAULT);
    tap_equal(uv_loop_close(&world.loop), 0, "nothing is left in the loop");
    tap_equal(rmdir(world.mount), 0, "nor on the mount point");
    munmap(world.shared, sizeof *world.shared);
    return tap_done();
}

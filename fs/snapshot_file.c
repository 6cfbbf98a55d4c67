/* Snapshots on disk: when one is made, the child that writes it, and how it gets its name. */
#include "snapshot_file.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "snapshot_file_internal.h"

enum {
    RETRY_MS_MIN = 1000, /* after a failure; doubled by each further one */
    RETRY_MS_MAX = 300 * 1000,
    /* The loop comes first. */
    CHILD_NICE = 5,
};

/* Loading */

struct listing {
    uint64_t newest;
    uint64_t *others; /* to be removed: unfinished ones, */
    size_t unfinished_count;
    size_t others_count; /* and then older ones */
    size_t capacity;
    int error;
};

static void note(struct listing *listing, uint64_t index)
{
    if (listing->others_count == listing->capacity) {
        size_t larger = listing->capacity ? listing->capacity * 2 : 16;
        uint64_t *moved = realloc(listing->others, larger * sizeof *moved);
        if (!moved) {
            listing->error = -ENOMEM;
            return;
        }
        listing->others = moved;
        listing->capacity = larger;
    }
    listing->others[listing->others_count++] = index;
}

/* The index that a name stands for, 0 where it is not one of ours. */
static uint64_t index_of(const char *name, const char *suffix)
{
    static const char prefix[] = "snapshot-";
    const char *digits = name + strlen(prefix);

    if (strncmp(name, prefix, strlen(prefix)) != 0 || strspn(digits, "0123456789") < 16)
        return 0;
    size_t len = strspn(digits, "0123456789");
    return len <= 20 && strcmp(digits + len, suffix) == 0 ? strtoull(digits, NULL, 10) : 0;
}

static void note_unfinished(void *context, const char *name)
{
    uint64_t index = index_of(name, ".new");
    if (index)
        note(context, index);
}

static void note_finished(void *context, const char *name)
{
    struct listing *listing = context;
    uint64_t index = index_of(name, "");
    if (!index)
        return;
    if (index < listing->newest) {
        note(listing, index);
    } else {
        if (listing->newest)
            note(listing, listing->newest);
        listing->newest = index;
    }
}

static int list(const struct disk *disk, const char *directory, struct listing *listing)
{
    int error = disk->list(disk->context, directory, note_unfinished, listing);
    listing->unfinished_count = listing->others_count;
    if (!error)
        error = disk->list(disk->context, directory, note_finished, listing);
    return error ? error : listing->error;
}

/* An unfinished one has the room of the reserve, and gives it back. */
static int remove_others(const struct disk *disk, const char *directory,
                         const struct listing *listing, char *message, size_t message_size)
{
    for (size_t i = 0; i < listing->others_count; i++) {
        bool unfinished = i < listing->unfinished_count;
        struct snapshot__path path =
            snapshot__path(directory, listing->others[i], unfinished ? ".new" : "");
        struct snapshot__path reserve = snapshot__reserve_path(directory);
        int error = unfinished ? disk->rename(disk->context, path.text, reserve.text)
                               : disk->unlink(disk->context, path.text);
        if (error && error != -ENOENT) {
            snprintf(message, message_size, "%s: cannot remove this file: %s", path.text,
                     strerror(-error));
            return error;
        }
    }
    return 0;
}

int snapshot_load(const struct disk *disk, const char *directory, struct node *node,
                  struct snapshot_info *ret_info, char *message, size_t message_size)
{
    struct listing listing = {0};
    struct snapshot_info info = {0};

    int error = list(disk, directory, &listing);
    if (error && error != -ENOMEM)
        snprintf(message, message_size, "%s: cannot list this directory: %s", directory,
                 strerror(-error));
    if (!error && listing.newest)
        error = snapshot__read(disk, directory, listing.newest, node, &info, message, message_size);
    if (!error)
        error = remove_others(disk, directory, &listing, message, message_size);
    /* A name that is there after a kill may be on no disk yet. */
    if (!error && (listing.newest || listing.others_count)) {
        error = disk->sync_directory(disk->context, directory);
        if (error)
            snprintf(message, message_size, "%s: cannot sync this directory: %s", directory,
                     strerror(-error));
    }
    free(listing.others);
    if (error == -ENOMEM)
        snprintf(message, message_size, "%s: out of memory", directory);
    if (!error)
        *ret_info = info;
    return error;
}

/* Writing */

enum stage {
    IDLE,
    WRITING, /* the child does */
    ON_POOL, /* see enum work */
};

/* What the pool does. All of it ends with a reserve that is large enough, or as large as can be. */
enum work {
    GIVE_NAME,
    GIVE_UP,
    RESERVE_ONLY,
};

/* What happens on the pool. It outlives a writer that is closed meanwhile. */
struct finishing {
    uv_work_t request;
    uv_sem_t ended;
    struct snapshot_writer *writer; /* NULL: closed */
    enum work work;
    int error;
    uint64_t bytes;
    uint64_t reserve_there;
    uint64_t reserve_wanted;
};

/* The child, as the loop sees it. Freed when its handle is closed. */
struct child {
    uv_poll_t poll;
    int pidfd;
    pid_t pid;
    struct snapshot_writer *writer;
};

struct snapshot_writer {
    uv_loop_t *loop;
    const struct disk *disk;
    char *directory;
    struct snapshot_options options;
    const struct snapshot_handler *handler;
    void *context;

    struct snapshot_info last;
    uint64_t last_written_bytes; /* of the log, when the last one was begun */

    enum stage stage;
    struct snapshot_info current;
    uint64_t current_written_bytes;
    struct child *child;
    struct finishing *finishing;
    char why[256]; /* it is given up */

    uint64_t retry_at_ms;
    uint64_t retry_ms;

    uint64_t needed_bytes;  /* by the next one, at most */
    uint64_t reserve_bytes; /* while the child has the reserve, too */
    uint64_t reserve_retry_at_ms;

    struct snapshot__output output; /* large: untouched before the first one */
};

static void begin(struct snapshot_writer *writer, const struct node *node);
static void finish(struct snapshot_writer *writer, enum work work);
static uint64_t wanted_reserve(const struct snapshot_writer *writer);

int snapshot_writer_open(uv_loop_t *loop, const struct disk *disk, const char *directory,
                         const struct snapshot_options *options, const struct snapshot_info *last,
                         const struct node *node, const struct snapshot_handler *handler,
                         void *context, struct snapshot_writer **ret_writer)
{
    if (strlen(directory) + SNAPSHOT__NAME_BYTES > sizeof((struct snapshot__path *)0)->text)
        return -ENAMETOOLONG;
    struct snapshot_writer *writer = calloc(1, sizeof *writer);
    if (!writer)
        return -ENOMEM;
    writer->loop = loop;
    writer->disk = disk;
    writer->directory = strdup(directory);
    writer->options = *options;
    writer->handler = handler;
    writer->context = context;
    writer->last = *last;
    writer->retry_ms = RETRY_MS_MIN;
    if (!writer->directory) {
        free(writer);
        return -ENOMEM;
    }
    if (!writer->options.log_bytes)
        writer->options.log_bytes = LIMIT_SNAPSHOT_LOG_BYTES;
    if (!writer->options.ahead_bytes)
        writer->options.ahead_bytes = LIMIT_SNAPSHOT_AHEAD_BYTES;
    writer->needed_bytes = node_snapshot_bytes(node);
    writer->reserve_bytes = snapshot__reserve(disk, directory, 0, wanted_reserve(writer));
    *ret_writer = writer;
    return 0;
}

static uint64_t now_ms(void)
{
    return uv_hrtime() / 1000000;
}

/* Where the log finds no room, a smaller part of it is worth dropping. */
static bool is_due(const struct snapshot_writer *writer, uint64_t written_bytes, bool short_of_room)
{
    uint64_t since = written_bytes - writer->last_written_bytes;
    uint64_t enough = writer->options.log_bytes;

    if (enough < 2 * writer->last.bytes)
        enough = 2 * writer->last.bytes;
    if (short_of_room && enough > LIMIT_SEGMENT_BYTES)
        enough = LIMIT_SEGMENT_BYTES;
    return since > enough;
}

static uint64_t ahead_of(const struct snapshot_writer *writer)
{
    return writer->needed_bytes / 8 + writer->options.ahead_bytes;
}

static uint64_t wanted_reserve(const struct snapshot_writer *writer)
{
    return writer->needed_bytes + ahead_of(writer);
}

/* Topped up when a quarter of what is ahead is used up, so that it is not done all the time, and
 * enough is left for what happens while a snapshot is written. */
static bool is_reserve_short(const struct snapshot_writer *writer)
{
    return writer->reserve_bytes < writer->needed_bytes + ahead_of(writer) / 4 * 3 &&
           now_ms() >= writer->reserve_retry_at_ms;
}

void snapshot_writer_consider(struct snapshot_writer *writer, const struct node *node,
                              uint64_t written_bytes, bool short_of_room)
{
    writer->needed_bytes = node_snapshot_bytes(node);
    if (writer->stage != IDLE)
        return;
    if (is_due(writer, written_bytes, short_of_room) && now_ms() >= writer->retry_at_ms) {
        node_get_applied(node, &writer->current.index, &writer->current.term);
        if (writer->current.index > writer->last.index) {
            writer->current_written_bytes = written_bytes;
            begin(writer, node);
            return;
        }
    }
    if (is_reserve_short(writer))
        finish(writer, RESERVE_ONLY);
}

uint64_t snapshot_writer_room(const struct snapshot_writer *writer)
{
    return writer->reserve_bytes;
}

__attribute__((format(printf, 2, 3))) static void give_up(struct snapshot_writer *writer,
                                                          const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(writer->why, sizeof writer->why, format, arguments);
    va_end(arguments);
    finish(writer, GIVE_UP);
}

static void write_in_child(struct snapshot_writer *writer, const struct node *node, pid_t parent,
                           const char *path);
static int watch(struct snapshot_writer *writer, pid_t pid);

/* Into the room of the reserve, where there is one. */
static int write_current(struct snapshot_writer *writer, const struct node *node, const char *path)
{
    const struct disk *disk = writer->disk;
    struct snapshot__path reserve = snapshot__reserve_path(writer->directory);

    int error = disk->rename(disk->context, reserve.text, path);
    if (error && error != -ENOENT)
        return error;
    return snapshot__write(&writer->output, disk, path, node, writer->current.index,
                           writer->current.term);
}

static void begin(struct snapshot_writer *writer, const struct node *node)
{
    struct snapshot__path path = snapshot__path(writer->directory, writer->current.index, ".new");
    pid_t parent = getpid();
    sigset_t all, before;

    writer->stage = WRITING;
    if (writer->options.in_process) {
        int error = write_current(writer, node, path.text);
        if (error)
            give_up(writer, "%s: %s", path.text, strerror(-error));
        else
            finish(writer, GIVE_NAME);
        return;
    }
    /* No handler of ours may run in the child: it would write into our loop's descriptors. */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    pid_t pid = writer->options.fork ? writer->options.fork() : fork();
    int error = pid < 0 ? -errno : 0;
    if (pid == 0)
        write_in_child(writer, node, parent, path.text);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (!error)
        error = watch(writer, pid);
    if (error)
        give_up(writer, "cannot make a process for it: %s", strerror(-error));
}

/* Only what a child of a process with threads may call. Every descriptor goes first, the mount's
 * and the log's and the lock of the data directory, which must not outlive the daemon in here. */
static void write_in_child(struct snapshot_writer *writer, const struct node *node, pid_t parent,
                           const char *path)
{
    if (close_range(0, ~0U, 0) < 0 || prctl(PR_SET_PDEATHSIG, SIGKILL) < 0)
        _exit(errno);
    if (getppid() != parent)
        _exit(ECANCELED);
    setpriority(PRIO_PROCESS, 0, CHILD_NICE); /* without, it is written as well */
    _exit(-write_current(writer, node, path));
}

static void on_child_end(uv_poll_t *poll, int status, int events);

static int watch(struct snapshot_writer *writer, pid_t pid)
{
    struct child *child = calloc(1, sizeof *child);
    int error = child ? 0 : -ENOMEM;
    int pidfd = -1;

    if (!error && (pidfd = pidfd_open(pid, 0)) < 0)
        error = -errno;
    if (!error)
        error = uv_poll_init(writer->loop, &child->poll, pidfd);
    if (error) {
        if (pidfd >= 0)
            close(pidfd);
        free(child);
        kill(pid, SIGKILL);
        waitpid(pid, NULL, 0);
        return error;
    }
    child->poll.data = child;
    child->pidfd = pidfd;
    child->pid = pid;
    child->writer = writer;
    writer->child = child;
    error = uv_poll_start(&child->poll, UV_READABLE, on_child_end);
    assert(!error);
    return 0;
}

static void free_child(uv_handle_t *handle)
{
    struct child *child = handle->data;
    close(child->pidfd);
    free(child);
}

static void on_child_end(uv_poll_t *poll, int status, int events)
{
    struct child *child = poll->data;
    struct snapshot_writer *writer = child->writer;
    int code = 0;
    (void)status;
    (void)events;

    pid_t pid = waitpid(child->pid, &code, WNOHANG);
    if (pid == 0)
        return;
    bool known = pid == child->pid;
    writer->child = NULL;
    uv_close((uv_handle_t *)poll, free_child);
    struct snapshot__path path = snapshot__path(writer->directory, writer->current.index, ".new");
    if (!known)
        give_up(writer, "it is unknown how the process that wrote it ended");
    else if (WIFSIGNALED(code))
        give_up(writer, "the process that wrote it was ended by signal %d", WTERMSIG(code));
    else if (WEXITSTATUS(code))
        give_up(writer, "%s: %s", path.text, strerror(WEXITSTATUS(code)));
    else
        finish(writer, GIVE_NAME);
}

/* Its name, or its end, and the next one's room */

static void finish_on_pool(uv_work_t *request);
static void finished(uv_work_t *request, int status);

static void finish(struct snapshot_writer *writer, enum work work)
{
    struct finishing *finishing = calloc(1, sizeof *finishing);

    if (!finishing || uv_sem_init(&finishing->ended, 0)) {
        free(finishing);
        writer->reserve_retry_at_ms = now_ms() + RETRY_MS_MIN;
        if (work == RESERVE_ONLY)
            return;
        /* The file stays until the next start, with the room of the reserve. */
        writer->stage = IDLE;
        writer->retry_at_ms = now_ms() + RETRY_MS_MAX;
        writer->reserve_bytes = 0;
        return;
    }
    finishing->request.data = finishing;
    finishing->writer = writer;
    finishing->work = work;
    finishing->reserve_there = work == RESERVE_ONLY ? writer->reserve_bytes : 0;
    finishing->reserve_wanted = wanted_reserve(writer);
    writer->finishing = finishing;
    writer->stage = ON_POOL;
    int error = uv_queue_work(writer->loop, &finishing->request, finish_on_pool, finished);
    assert(!error);
}

static int size_of(const struct disk *disk, const char *path, uint64_t *ret_bytes)
{
    int file = disk->open(disk->context, path, O_RDONLY);
    if (file < 0)
        return file;
    int error = disk->size(disk->context, file, ret_bytes);
    disk->close(disk->context, file);
    return error;
}

static void finish_current(struct finishing *finishing)
{
    const struct snapshot_writer *writer = finishing->writer;
    const struct disk *disk = writer->disk;
    struct snapshot__path reserve = snapshot__reserve_path(writer->directory);
    struct snapshot__path unfinished =
        snapshot__path(writer->directory, writer->current.index, ".new");
    struct snapshot__path path = snapshot__path(writer->directory, writer->current.index, "");
    struct snapshot__path older = snapshot__path(writer->directory, writer->last.index, "");
    int error = 0;

    if (finishing->work == GIVE_NAME) {
        error = size_of(disk, unfinished.text, &finishing->bytes);
        if (!error)
            error = disk->rename(disk->context, unfinished.text, path.text);
        if (!error)
            error = disk->sync_directory(disk->context, writer->directory);
        /* If it stays, the next start removes it. */
        if (!error && writer->last.index)
            disk->unlink(disk->context, older.text);
    }
    /* The log is still whole: a snapshot whose name is not known to be durable may go. */
    if (error)
        disk->unlink(disk->context, path.text);
    if (error || finishing->work == GIVE_UP)
        disk->rename(disk->context, unfinished.text, reserve.text);
    finishing->error = error;
}

static void finish_on_pool(uv_work_t *request)
{
    struct finishing *finishing = request->data;
    const struct snapshot_writer *writer = finishing->writer;

    if (finishing->work != RESERVE_ONLY)
        finish_current(finishing);
    finishing->reserve_there = snapshot__reserve(
        writer->disk, writer->directory, finishing->reserve_there, finishing->reserve_wanted);
    uv_sem_post(&finishing->ended);
}

static void free_finishing(struct finishing *finishing)
{
    uv_sem_destroy(&finishing->ended);
    free(finishing);
}

static void finished(uv_work_t *request, int status)
{
    struct finishing *finishing = request->data;
    struct snapshot_writer *writer = finishing->writer;

    if (!writer) {
        free_finishing(finishing);
        return;
    }
    assert(status == 0); /* only snapshot_writer_close() cancels */
    (void)status;
    uv_sem_wait(&finishing->ended);
    writer->finishing = NULL;
    writer->stage = IDLE;
    writer->reserve_bytes = finishing->reserve_there;
    if (finishing->reserve_there < finishing->reserve_wanted)
        writer->reserve_retry_at_ms = now_ms() + RETRY_MS_MIN;
    if (finishing->work == RESERVE_ONLY) {
        free_finishing(finishing);
        return;
    }
    if (finishing->error)
        snprintf(writer->why, sizeof writer->why, "%s: it cannot get its name: %s",
                 writer->directory, strerror(-finishing->error));
    bool failed = finishing->error || finishing->work == GIVE_UP;
    if (failed) {
        writer->retry_at_ms = now_ms() + writer->retry_ms;
        writer->retry_ms =
            writer->retry_ms * 2 < RETRY_MS_MAX ? writer->retry_ms * 2 : RETRY_MS_MAX;
    } else {
        writer->retry_ms = RETRY_MS_MIN;
        writer->current.bytes = finishing->bytes;
        writer->last = writer->current;
        writer->last_written_bytes = writer->current_written_bytes;
    }
    free_finishing(finishing);
    if (failed)
        writer->handler->failed(writer->context, writer->why);
    else
        writer->handler->done(writer->context, writer->last.index);
}

void snapshot_writer_close(struct snapshot_writer *writer)
{
    if (!writer)
        return;
    if (writer->child) {
        kill(writer->child->pid, SIGKILL);
        waitpid(writer->child->pid, NULL, 0);
        uv_close((uv_handle_t *)&writer->child->poll, free_child);
        struct snapshot__path path =
            snapshot__path(writer->directory, writer->current.index, ".new");
        struct snapshot__path reserve = snapshot__reserve_path(writer->directory);
        writer->disk->rename(writer->disk->context, path.text, reserve.text);
    }
    if (writer->finishing) {
        if (uv_cancel((uv_req_t *)&writer->finishing->request) != 0)
            uv_sem_wait(&writer->finishing->ended);
        writer->finishing->writer = NULL; /* its callback frees it */
    }
    free(writer->directory);
    free(writer);
}

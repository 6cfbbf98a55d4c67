/* The daemon's one loop. From top to bottom: how it starts, what it does with the node's actions,
 * where events come from, how it stops. */
#include "loop.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include "data_dir.h"
#include "disk.h"
#include "fuse_edge.h"
#include "guard.h"
#include "process.h"
#include "report.h"
#include "snapshot_file.h"
#include "wal.h"
#include "watch.h"

/* Room in the log beyond the reserve, so that work does not wait for preallocation. */
enum { LOG_AHEAD_BYTES = 2 << 20 };

/* One machine is one node, until nodes have peers. */
enum { NODE_ID = 1 };

enum { INIT_TIMEOUT_MS = 10 * 1000 };

struct daemon {
    const struct config *config;
    uv_loop_t loop;
    uv_poll_t timer; /* of the node, on CLOCK_BOOTTIME: uv_timer stands still in suspend */
    int timer_file;
    uv_timer_t drain_timer;
    uv_signal_t terminate;
    uv_signal_t interrupt;
    uv_signal_t hangup;
    bool handles_open;
    struct data_dir data_dir;
    bool data_dir_is_open;
    void *node_memory;
    size_t node_bytes;
    struct node *node;
    struct wal *wal;
    struct snapshot_info snapshot; /* that the node was restored from */
    struct snapshot_writer *snapshots;
    struct node_edge_counts counts;
    struct fuse_edge *fuse;
    struct watches *watches;
    uint64_t replay_first; /* 0: none wanted */
    uint64_t replay_last;
    bool hurry; /* somebody waits for what was appended to the log */
    bool ready;
    bool draining;
    bool stopping;
    enum exit_code exit_code;
    char message[512];
};

static uint64_t boottime_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_BOOTTIME, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static int64_t wall_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void stop(struct daemon *daemon, enum exit_code exit_code)
{
    if (exit_code > daemon->exit_code)
        daemon->exit_code = exit_code;
    daemon->stopping = true;
    uv_stop(&daemon->loop);
}

/* The node's actions */

static void set_timer(struct daemon *daemon, uint64_t at_ms)
{
    struct itimerspec when = {
        .it_value = {.tv_sec = (time_t)(at_ms / 1000), .tv_nsec = (long)(at_ms % 1000) * 1000000}};
    int error = timerfd_settime(daemon->timer_file, TFD_TIMER_ABSTIME, &when, NULL);
    assert(!error);
}

static void tell(struct daemon *daemon, const struct node_notice *notice)
{
    static struct report_limit limits[NODE_NOTICE_NOT_YET + 1];
    struct report_limit *limit = &limits[notice->type];
    int path_len = (int)notice->path.len;
    const char *path = path_len ? notice->path.data : "";
    const struct process *process = &notice->process;
    const struct process *holder = &notice->holder;

    switch (notice->type) {
    case NODE_NOTICE_UNLINKED:
        report_limited(limit, REPORT_WARNING,
                       "%.*s: process %" PRIu32 " (%s) unlinked the claim %" PRIu64
                       " of process %" PRIu32 " (%s), which has lost it",
                       path_len, path, process->pid, process->comm, notice->token, holder->pid,
                       holder->comm);
        break;
    case NODE_NOTICE_DIRECTORY_LOCK:
        report_limited(limit, REPORT_WARNING,
                       "process %" PRIu32
                       " (%s) opened the directory '%.*s' as if to flock it, which "
                       "no filesystem daemon could see: lock a file in it, such as '%.*slock'",
                       process->pid, process->comm, path_len, path, path_len, path);
        break;
    case NODE_NOTICE_LOST_BY_RESTART:
        report_limited(limit, REPORT_WARNING,
                       "%.*s: the claim %" PRIu64 " of process %" PRIu32
                       " (%s) ended with the last run of this daemon",
                       path_len, path, notice->token, holder->pid, holder->comm);
        break;
    case NODE_NOTICE_STALLED:
        report_limited(limit, REPORT_ERROR,
                       "the log did not answer within the operation timeout: requests fail with "
                       "ETIMEDOUT until it does");
        break;
    case NODE_NOTICE_LOG_FULL:
        report_limited(limit, REPORT_ERROR,
                       "no room for the log and a snapshot on the disk of the data directory: new "
                       "claims are refused with ENOSPC, releases go on");
        break;
    case NODE_NOTICE_FORCED:
        /* Each one: it is for root and owners only. */
        report_warning("%.*s: process %" PRIu32 " (%s) revoked the claim %" PRIu64
                       " of process %" PRIu32 " (%s)",
                       path_len, path, process->pid, process->comm, notice->token, holder->pid,
                       holder->comm);
        break;
    case NODE_NOTICE_SHORT_CLAIM:
        if (process_alive(process->pid, process->start) && !process_exits(process->pid)) {
            node_short_claim(daemon->node, notice);
            report_limited(limit, REPORT_WARNING,
                           "%.*s: process %" PRIu32 " (%s) made this claim and closed it at once, "
                           "which released it: keep the descriptor, or use a lock whose .release "
                           "is exit",
                           path_len, path, process->pid, process->comm);
        }
        break;
    case NODE_NOTICE_NOT_YET:
        report_limited(limit, REPORT_WARNING,
                       "process %" PRIu32 " (%s) asked for an fcntl lock on a byte range, which "
                       "this version does not have: only whole files",
                       process->pid, process->comm);
        break;
    }
}

static void carry_out(void *context, const struct node_action *action)
{
    struct daemon *daemon = context;
    switch (action->type) {
    case NODE_ACTION_PERSIST_STATE:
        wal_append_state(daemon->wal, action->persist_state.write, action->persist_state.term,
                         action->persist_state.vote);
        daemon->hurry = true;
        break;
    case NODE_ACTION_PERSIST_ENTRY:
        wal_append_entry(daemon->wal, action->persist_entry.write, action->persist_entry.index,
                         action->persist_entry.term, action->persist_entry.entry_type,
                         action->persist_entry.data.data, action->persist_entry.data.len);
        daemon->hurry = daemon->hurry || action->persist_entry.hurried;
        break;
    case NODE_ACTION_HURRY:
        daemon->hurry = true;
        break;
    case NODE_ACTION_PERSIST_RESET:
    case NODE_ACTION_SEND:
    case NODE_ACTION_SNAPSHOT_CHUNK:
    case NODE_ACTION_RESTORE:
        assert(false); /* the only voter talks to nobody */
        break;
    case NODE_ACTION_REPLAY:
        daemon->replay_first = action->replay.first;
        daemon->replay_last = action->replay.last;
        break;
    case NODE_ACTION_REPLY:
        fuse_edge_reply(daemon->fuse, &action->reply);
        break;
    case NODE_ACTION_READY:
        daemon->ready = true;
        uv_stop(&daemon->loop);
        break;
    case NODE_ACTION_LOST:
        fuse_edge_lost(daemon->fuse, action->lost.handle);
        break;
    case NODE_ACTION_SIGNAL:
        process_signal(&action->signal.process, action->signal.number);
        break;
    case NODE_ACTION_TIMER:
        set_timer(daemon, action->timer.at_ms);
        break;
    case NODE_ACTION_WATCH:
        if (watches_add(daemon->watches, &action->watch) != 0)
            report_error("out of memory: the end of process %" PRIu32 " goes unnoticed",
                         action->watch.pid);
        break;
    case NODE_ACTION_NOTICE:
        tell(daemon, &action->notice);
        break;
    case NODE_ACTION_DRAINED:
        stop(daemon, EXIT_STOPPED);
        break;
    case NODE_ACTION_FAILED:
        report_error("stopping: %s", action->failed.reason);
        stop(daemon, EXIT_FAILED);
        break;
    }
}

/* One step of the node, and the replay that it may ask for. */

static void step_once(struct daemon *daemon, struct node_event *event)
{
    event->now_ms = boottime_ms();
    event->wall_ms = wall_ms();
    event->log_room = daemon->wal ? wal_room(daemon->wal) : 0;
    event->snapshot_room = daemon->snapshots ? snapshot_writer_room(daemon->snapshots) : 0;
    node_step(daemon->node, event, carry_out, daemon);
}

static bool replay_entry(void *context, uint64_t index, uint64_t term, uint32_t type,
                         const char *data, size_t len)
{
    struct daemon *daemon = context;
    (void)term;
    struct node_event event = {.type = NODE_EVENT_REPLAYED, .replayed = {index, type, {data, len}}};
    step_once(daemon, &event);
    return !daemon->stopping;
}

static void step(struct daemon *daemon, struct node_event *event)
{
    step_once(daemon, event);
    if (daemon->replay_first) {
        uint64_t first = daemon->replay_first;
        daemon->replay_first = 0;
        int error = wal_read(daemon->wal, first, daemon->replay_last, replay_entry, daemon,
                             daemon->message, sizeof daemon->message);
        if (error) {
            report_error("%s", daemon->message);
            stop(daemon, EXIT_FAILED);
        }
    }
    if (daemon->wal)
        wal_want_room(daemon->wal, node_log_reserve(daemon->node) + LOG_AHEAD_BYTES);
    if (daemon->snapshots && daemon->ready && !daemon->stopping)
        snapshot_writer_consider(daemon->snapshots, daemon->node, wal_written_bytes(daemon->wal),
                                 wal_is_short_of_room(daemon->wal));
}

/* What the events of a turn of the loop have appended goes to the disk. */
static void end_turn(struct daemon *daemon)
{
    if (daemon->hurry)
        wal_flush(daemon->wal);
    else
        wal_flush_later(daemon->wal);
    daemon->hurry = false;
}

/* Events: the log */

static void on_recovered_state(void *context, uint64_t term, uint64_t vote)
{
    struct node_event event = {.type = NODE_EVENT_RECOVERED_STATE, .recovered_state = {term, vote}};
    step(context, &event);
}

static void on_recovered_entry(void *context, uint64_t index, uint64_t term, uint32_t type,
                               const char *data, size_t len)
{
    struct node_event event = {.type = NODE_EVENT_RECOVERED_ENTRY,
                               .recovered_entry = {index, term, type, {data, len}}};
    step(context, &event);
}

static void on_durable(void *context, uint64_t write)
{
    struct daemon *daemon = context;
    daemon->counts.log_syncs++;
    daemon->counts.log_disk_bytes = wal_disk_bytes(daemon->wal);
    struct node_event event = {.type = NODE_EVENT_PERSISTED, .persisted = {write}};
    step(context, &event);
    end_turn(context);
}

static void on_write_failed(void *context, int error, const char *file)
{
    report_error("%s: writing the log failed: %s. What was not yet acknowledged may be lost, "
                 "nothing else",
                 file, strerror(-error));
    struct node_event event = {.type = NODE_EVENT_PERSIST_FAILED};
    step(context, &event);
}

static const struct wal_handler wal_handler = {
    .state = on_recovered_state,
    .entry = on_recovered_entry,
    .durable = on_durable,
    .failed = on_write_failed,
};

/* Events: snapshots */

static void drop_log(struct daemon *daemon, uint64_t index)
{
    struct node_event event = {.type = NODE_EVENT_COMPACTED, .compacted = {index}};
    step(daemon, &event);
    wal_drop_until(daemon->wal, index);
}

static void on_snapshot(void *context, uint64_t index)
{
    ((struct daemon *)context)->counts.snapshots++;
    drop_log(context, index);
}

static void on_snapshot_failed(void *context, const char *why)
{
    ((struct daemon *)context)->counts.snapshots_failed++;
    report_warning("the log could not be cut off, and goes on growing until it can: %s", why);
}

static const struct snapshot_handler snapshot_handler = {
    .done = on_snapshot,
    .failed = on_snapshot_failed,
};

/* Events: the mount */

static void on_fuse_event(void *context, struct node_event *event)
{
    step(context, event);
}

static void on_fuse_turn_end(void *context)
{
    end_turn(context);
}

static bool on_wants_groups(void *context, const struct node_request *request)
{
    const struct daemon *daemon = context;
    return node_wants_groups(daemon->node, request);
}

static bool on_reads_token(void *context, uint64_t inode)
{
    const struct daemon *daemon = context;
    return node_reads_token(daemon->node, inode);
}

static bool on_lost_process(void *context, uint64_t inode, size_t n, struct process *ret_process)
{
    const struct daemon *daemon = context;
    return node_lost_process(daemon->node, inode, n, ret_process);
}

static void on_gone(void *context, int error)
{
    struct daemon *daemon = context;
    if (error && error != -ENODEV) {
        report_error("the connection to the kernel broke: %s", strerror(-error));
        stop(daemon, EXIT_FAILED);
        return;
    }
    report_error("%s was unmounted from outside: stopping", daemon->config->mount_point);
    stop(daemon, EXIT_FAILED);
}

static const struct fuse_edge_handler fuse_handler = {
    .event = on_fuse_event,
    .turn_end = on_fuse_turn_end,
    .wants_groups = on_wants_groups,
    .reads_token = on_reads_token,
    .lost_process = on_lost_process,
    .gone = on_gone,
};

/* Events: processes */

static void on_process_ended(void *context, const struct process *process)
{
    struct daemon *daemon = context;
    struct node_event event = {.type = NODE_EVENT_PROCESS_ENDED, .process_ended = *process};
    step(daemon, &event);
    end_turn(daemon);
}

/* Of those that lost a claim with the last run of the daemon, the dead ones matter no more. */
static void look_at_lost_processes(struct daemon *daemon)
{
    uint32_t cursor = 0;
    struct process process;
    while (node_next_lost_process(daemon->node, &cursor, &process))
        if (!process_alive(process.pid, process.start))
            on_process_ended(daemon, &process);
}

/* Events: time and signals */

static void on_timer(uv_poll_t *handle, int status, int events)
{
    struct daemon *daemon = handle->data;
    uint64_t expirations;
    (void)status;
    (void)events;
    if (read(daemon->timer_file, &expirations, sizeof expirations) < 0)
        return;
    struct node_event event = {.type = NODE_EVENT_TIMER};
    step(daemon, &event);
    end_turn(daemon);
}

static void on_drain_timeout(uv_timer_t *timer)
{
    struct daemon *daemon = timer->data;
    report_warning("claims still held after the drain timeout: %" PRIu32 ", they end now",
                   node_claims_held(daemon->node));
    stop(daemon, EXIT_STOPPED);
}

static void on_signal(uv_signal_t *handle, int number)
{
    struct daemon *daemon = handle->data;
    if (number == SIGHUP && !daemon->config->foreground)
        return; /* nobody's terminal, and nothing to read anew */
    if (!daemon->fuse) {
        stop(daemon, EXIT_STOPPED);
        return;
    }
    if (daemon->draining) {
        report_warning("told to stop again: not waiting for %" PRIu32 " claims",
                       node_claims_held(daemon->node));
        stop(daemon, EXIT_STOPPED);
        return;
    }
    daemon->draining = true;
    report_info("stopping: no new claims; waiting up to %.1f s for %" PRIu32 " claims",
                daemon->config->drain_timeout_ms / 1000.0, node_claims_held(daemon->node));
    struct node_event event = {.type = NODE_EVENT_DRAIN};
    step(daemon, &event);
    wal_flush(daemon->wal); /* what is held no more is not to be waited for */
    uv_timer_start(&daemon->drain_timer, on_drain_timeout, daemon->config->drain_timeout_ms, 0);
}

/* Starting */

static int open_handles(struct daemon *daemon)
{
    int error = uv_loop_init(&daemon->loop);
    if (error)
        return error;
    daemon->timer_file = timerfd_create(CLOCK_BOOTTIME, TFD_NONBLOCK | TFD_CLOEXEC);
    if (daemon->timer_file < 0) {
        error = -errno;
        uv_loop_close(&daemon->loop);
        return error;
    }
    uv_poll_init(&daemon->loop, &daemon->timer, daemon->timer_file);
    uv_timer_init(&daemon->loop, &daemon->drain_timer);
    uv_signal_init(&daemon->loop, &daemon->terminate);
    uv_signal_init(&daemon->loop, &daemon->interrupt);
    uv_signal_init(&daemon->loop, &daemon->hangup);
    daemon->timer.data = daemon->drain_timer.data = daemon;
    daemon->terminate.data = daemon->interrupt.data = daemon->hangup.data = daemon;
    uv_signal_start(&daemon->terminate, on_signal, SIGTERM);
    uv_signal_start(&daemon->interrupt, on_signal, SIGINT);
    uv_signal_start(&daemon->hangup, on_signal, SIGHUP);
    uv_poll_start(&daemon->timer, UV_READABLE, on_timer);
    daemon->handles_open = true;
    return watches_open(&daemon->loop, on_process_ended, daemon, &daemon->watches);
}

static int make_node(struct daemon *daemon)
{
    struct node_config config = {
        .id = NODE_ID,
        .ttl_ms = daemon->config->ttl_ms,
        .ttl_min_ms = CONFIG_TTL_MS_MIN,
        .op_timeout_ms = daemon->config->op_timeout_ms,
        .uid = geteuid(),
        .version = LOCKFS_VERSION,
        .edge_counts = &daemon->counts,
    };
    while (!config.incarnation)
        if (getrandom(&config.incarnation, sizeof config.incarnation, 0) < 0)
            return -errno;
    int error = process_boot_id(config.boot_id);
    if (error)
        return error;
    /* Untouched pages cost nothing: the limits are large, and what is used is small. */
    daemon->node_bytes = node_size(&node_limits_default);
    daemon->node_memory = mmap(NULL, daemon->node_bytes, PROT_READ | PROT_WRITE,
                               MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (daemon->node_memory == MAP_FAILED) {
        daemon->node_memory = NULL;
        return -errno;
    }
    daemon->node = node_init(daemon->node_memory, &node_limits_default, &config);
    assert(daemon->node);
    return 0;
}

/* The snapshot first, then what the log has behind it. */
static int recover(struct daemon *daemon)
{
    int error = snapshot_load(&disk_real, daemon->config->data, daemon->node, &daemon->snapshot,
                              daemon->message, sizeof daemon->message);
    if (error)
        return error;
    if (daemon->snapshot.index) {
        struct node_event event = {
            .type = NODE_EVENT_RECOVERED_SNAPSHOT,
            .recovered_snapshot = {daemon->snapshot.index, daemon->snapshot.term}};
        step(daemon, &event);
    }
    struct wal_options options = {.snapshot_index = daemon->snapshot.index};
    return wal_open(&daemon->loop, &disk_real, daemon->config->data, &options, &wal_handler, daemon,
                    daemon->message, sizeof daemon->message, &daemon->wal);
}

/* Brings the node to where it serves. */
static int start_node(struct daemon *daemon)
{
    int error = make_node(daemon);
    if (error) {
        report_answer("cannot start: %s", strerror(-error));
        return error;
    }
    error = recover(daemon);
    if (error) {
        report_answer("%s", daemon->message);
        return error;
    }
    struct node_event event = {.type = NODE_EVENT_START};
    step(daemon, &event);
    end_turn(daemon);
    while (!daemon->ready && !daemon->stopping)
        uv_run(&daemon->loop, UV_RUN_ONCE);
    if (daemon->stopping)
        return -EIO;
    struct snapshot_options options = {.log_bytes = daemon->config->snapshot_log_bytes};
    error = snapshot_writer_open(&daemon->loop, &disk_real, daemon->config->data, &options,
                                 &daemon->snapshot, daemon->node, &snapshot_handler, daemon,
                                 &daemon->snapshots);
    if (error)
        report_answer("cannot start: %s", strerror(-error));
    else if (daemon->snapshot.index)
        drop_log(daemon, daemon->snapshot.index); /* what a crash has left */
    return error;
}

/* Tells what a step at the mount point had to say. */
static int tell_step(struct daemon *daemon, int error)
{
    if (error)
        report_answer("%s", daemon->message);
    else if (daemon->message[0])
        report_info("%s", daemon->message);
    return error;
}

static int prepare_mount_point(struct daemon *daemon)
{
    return tell_step(daemon, mount_point_prepare(daemon->config->mount_point, daemon->message,
                                                 sizeof daemon->message));
}

static int guard_mount_point(struct daemon *daemon)
{
    bool immutable;
    if (daemon->config->unguarded)
        return 0;
    return tell_step(daemon, guard_lay(daemon->config->mount_point, &immutable, daemon->message,
                                       sizeof daemon->message));
}

static int mount_tree(struct daemon *daemon)
{
    struct fuse_edge_options options = {
        .mount_point = daemon->config->mount_point,
        .allow_other = geteuid() == 0,
        .requests_max = node_limits_default.requests,
        .handles_max = node_limits_default.handles + node_limits_default.pending_entries,
        .init_timeout_ms = INIT_TIMEOUT_MS,
    };
    int error = fuse_edge_mount(&daemon->fuse, &daemon->loop, &options, &fuse_handler, daemon,
                                daemon->message, sizeof daemon->message);
    if (error)
        report_answer("%s", daemon->message);
    return error;
}

static int open_data(struct daemon *daemon)
{
    int error = data_dir_open(daemon->config->data, daemon->message, sizeof daemon->message,
                              &daemon->data_dir);
    if (error) {
        report_answer("%s", daemon->message);
        return error;
    }
    daemon->data_dir_is_open = true;
    if (daemon->data_dir.made)
        report_info("%s is new: this is a new cluster, its fencing numbers begin at 1",
                    daemon->config->data);
    return 0;
}

/* A descriptor watches each process whose claims end with it, and others know the callers: many
 * processes must not keep the log from opening its next file. What is usual, 1,024, is for programs
 * that use select(2). */
static void allow_descriptors(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
        return;
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
}

static bool start(struct daemon *daemon)
{
    allow_descriptors();
    if (prepare_mount_point(daemon) || open_data(daemon))
        return false;
    int error = open_handles(daemon);
    if (error) {
        report_answer("cannot start: %s", strerror(-error));
        return false;
    }
    return !guard_mount_point(daemon) && !start_node(daemon) && !mount_tree(daemon);
}

/* Stopping, in the reverse order */

static void close_handle(uv_handle_t *handle, void *context)
{
    (void)context;
    if (!uv_is_closing(handle))
        uv_close(handle, NULL);
}

static void finish(struct daemon *daemon)
{
    /* A release that waits for company would count as unclean. */
    if (daemon->ready)
        wal_settle(daemon->wal);
    fuse_edge_unmount(daemon->fuse);
    daemon->fuse = NULL;
    if (daemon->handles_open) {
        snapshot_writer_close(daemon->snapshots);
        daemon->snapshots = NULL;
        watches_close(daemon->watches);
        wal_close(daemon->wal);
        daemon->wal = NULL;
        uv_walk(&daemon->loop, close_handle, NULL);
        uv_run(&daemon->loop, UV_RUN_DEFAULT);
        int error = uv_loop_close(&daemon->loop);
        assert(!error);
        close(daemon->timer_file);
    }
    if (daemon->node_memory)
        munmap(daemon->node_memory, daemon->node_bytes);
    if (daemon->data_dir_is_open)
        data_dir_close(&daemon->data_dir);
}

enum exit_code loop_run(const struct config *config, void (*ready)(void *context), void *context)
{
    struct daemon daemon = {.config = config, .exit_code = EXIT_STOPPED};
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN); /* where a limit ends a file, the disk is full: nobody dies of it */
    signal(SIGCHLD, SIG_DFL); /* ignored, it would hide how the writer of a snapshot ended */
    if (!start(&daemon)) {
        finish(&daemon);
        return daemon.stopping && daemon.exit_code == EXIT_STOPPED ? EXIT_STOPPED
                                                                   : EXIT_CANNOT_START;
    }
    ready(context);
    look_at_lost_processes(&daemon);
    report_info("lockfs %s serves %s, data in %s", LOCKFS_VERSION, config->mount_point,
                config->data);
    while (!daemon.stopping)
        uv_run(&daemon.loop, UV_RUN_DEFAULT);
    finish(&daemon);
    if (!config->unguarded)
        report_info("stopped; the guard stays on %s, 'lockfsd --remove-guard %s' takes it away",
                    config->mount_point, config->mount_point);
    else
        report_info("stopped");
    return daemon.exit_code;
}

/*
 * Power loss under a whole node: node, log and recovery as they ship, on a disk that forgets what
 * was not synced. At each of many random points the power fails; then a new daemon starts on what
 * is left, and everything that was acknowledged must be there. Every other disk has snapshots,
 * after so little work, and a log of such small files, that the power also fails while one is
 * written, gets its name, or lets files of the log go.
 *
 * SEED and CUTS in the environment replay and lengthen it.
 */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <uv.h>

#include "fs/node.h"
#include "fs/snapshot_file.h"
#include "fs/wal.h"
#include "tests/lib/node_bench.h"
#include "tests/lib/powerless_disk.h"
#include "tests/lib/tap.h"

enum { SLOTS = 16, LOCKS = 6, CUTS = 1200, CUTS_PER_DISK = 15, HELD_MAX = 64 };
enum { SEGMENT_BYTES = 24 << 10, SNAPSHOT_LOG_BYTES = 5000, LOG_AHEAD_BYTES = 64 << 10 };
enum { RESERVE_AHEAD_BYTES = 64 << 10 };

/* What the callers were told. */
struct acknowledged {
    bool lock[LOCKS];            /* made, and not removed since */
    uint32_t lock_unsure[LOCKS]; /* requests under way that make or remove it */
    uint64_t lock_token[LOCKS];
    uint64_t max_token;
    struct {
        uint64_t handle; /* 0: free */
        uint64_t inode;
        uint64_t token;
        uint32_t lock;
        uint32_t pid;
    } held[HELD_MAX];
};

struct call {
    bool busy;
    enum node_op op;
    uint32_t lock;
    uint32_t pid;
};

struct machine {
    uv_loop_t loop;
    struct powerless_disk *disk;
    struct disk calls_of_disk;
    struct wal *wal;
    bool has_snapshots;
    struct snapshot_writer *snapshots;
    struct node *node;
    void *memory;
    uint64_t incarnation;
    uint64_t replay_first;
    uint64_t replay_last;
    bool ready;
    bool hurry;
    bool failed;
    uint64_t inode[LOCKS];
    struct call calls[SLOTS];
    uint32_t next_pid;
    struct acknowledged acknowledged;
    uint64_t grants;
    uint64_t releases;
    uint64_t snapshots_made;
    uint64_t snapshots_failed;
    uint64_t snapshots_loaded;
    uint64_t dropped;   /* starts on a log whose first entry was gone */
    const char *broken; /* the first thing that was wrong */
};

static uint64_t random_state;

static uint32_t random_below(uint32_t limit)
{
    /* xorshift64* (Vigna 2016) */
    random_state ^= random_state >> 12;
    random_state ^= random_state << 25;
    random_state ^= random_state >> 27;
    return (uint32_t)((random_state * 0x2545f4914f6cdd1dULL) >> 33) % limit;
}

static void check(struct machine *machine, bool ok, const char *what)
{
    if (!ok && !machine->broken)
        machine->broken = what;
}

static void step(struct machine *machine, struct node_event *event);

static void hold(struct machine *machine, const struct call *call, const struct node_reply *reply)
{
    struct acknowledged *acknowledged = &machine->acknowledged;
    struct lock_view lock;
    struct claim_view claim;
    uint64_t id = lock_table_find(node_table(machine->node), LOCK_TABLE_ROOT,
                                  (struct span){&"abcdef"[call->lock], 1});
    bool found = lock_table_get_lock(node_table(machine->node), id, &lock);
    check(machine, found && lock.last_token > acknowledged->max_token,
          "a token is not larger than all before it");
    check(machine,
          lock_table_get_claim(node_table(machine->node), id, lock.last_token, &claim) &&
              claim.handle == reply->handle,
          "a granted claim is in the table");
    acknowledged->max_token = lock.last_token;
    acknowledged->lock_token[call->lock] = lock.last_token;
    machine->grants++;
    for (size_t i = 0; i < HELD_MAX; i++) {
        if (acknowledged->held[i].handle)
            continue;
        acknowledged->held[i].handle = reply->handle;
        acknowledged->held[i].inode = reply->inode;
        acknowledged->held[i].token = lock.last_token;
        acknowledged->held[i].lock = call->lock;
        acknowledged->held[i].pid = call->pid;
        return;
    }
    assert(false);
}

static void on_reply(struct machine *machine, const struct node_reply *reply)
{
    struct call *call = &machine->calls[reply->slot];
    assert(call->busy);
    call->busy = false;
    bool ok = reply->type != NODE_REPLY_ERROR;
    switch (call->op) {
    case NODE_OP_MKDIR:
        if (ok) {
            machine->acknowledged.lock[call->lock] = true;
            machine->acknowledged.lock_token[call->lock] = 0;
            machine->inode[call->lock] = reply->inode;
        }
        machine->acknowledged.lock_unsure[call->lock]--;
        break;
    case NODE_OP_LOOKUP:
        machine->inode[call->lock] = reply->inode;
        break;
    case NODE_OP_RMDIR:
        machine->acknowledged.lock_unsure[call->lock]--;
        if (ok)
            machine->acknowledged.lock[call->lock] = false;
        break;
    case NODE_OP_CREATE:
        if (ok)
            hold(machine, call, reply);
        break;
    default:
        break;
    }
}

static void sink(void *context, const struct node_action *action)
{
    struct machine *machine = context;
    switch (action->type) {
    case NODE_ACTION_PERSIST_STATE:
        wal_append_state(machine->wal, action->persist_state.write, action->persist_state.term,
                         action->persist_state.vote);
        machine->hurry = true;
        break;
    case NODE_ACTION_PERSIST_ENTRY:
        wal_append_entry(machine->wal, action->persist_entry.write, action->persist_entry.index,
                         action->persist_entry.term, action->persist_entry.entry_type,
                         action->persist_entry.data.data, action->persist_entry.data.len);
        machine->hurry = machine->hurry || action->persist_entry.hurried;
        break;
    case NODE_ACTION_HURRY:
        machine->hurry = true;
        break;
    case NODE_ACTION_REPLAY:
        machine->replay_first = action->replay.first;
        machine->replay_last = action->replay.last;
        break;
    case NODE_ACTION_REPLY:
        on_reply(machine, &action->reply);
        break;
    case NODE_ACTION_READY:
        machine->ready = true;
        break;
    case NODE_ACTION_FAILED:
        machine->failed = true;
        break;
    default:
        break;
    }
}

static void step_once(struct machine *machine, struct node_event *event)
{
    event->now_ms = 1000;
    event->wall_ms = 1000;
    event->log_room = machine->wal ? wal_room(machine->wal) : 0;
    event->snapshot_room =
        machine->snapshots ? snapshot_writer_room(machine->snapshots) : UINT64_MAX;
    node_step(machine->node, event, sink, machine);
}

static bool replay_entry(void *context, uint64_t index, uint64_t term, uint32_t type,
                         const char *data, size_t len)
{
    (void)term;
    step_once(context, &(struct node_event){.type = NODE_EVENT_REPLAYED,
                                            .replayed = {index, type, {data, len}}});
    return true;
}

static void step(struct machine *machine, struct node_event *event)
{
    step_once(machine, event);
    if (machine->replay_first) {
        char message[256];
        uint64_t first = machine->replay_first;
        machine->replay_first = 0;
        int error = wal_read(machine->wal, first, machine->replay_last, replay_entry, machine,
                             message, sizeof message);
        if (error)
            machine->failed = true;
    }
    if (machine->wal)
        wal_want_room(machine->wal, node_log_reserve(machine->node) + LOG_AHEAD_BYTES);
    if (machine->snapshots && !machine->failed)
        snapshot_writer_consider(machine->snapshots, machine->node, wal_written_bytes(machine->wal),
                                 wal_is_short_of_room(machine->wal));
}

static void on_state(void *context, uint64_t term, uint64_t vote)
{
    step(context,
         &(struct node_event){.type = NODE_EVENT_RECOVERED_STATE, .recovered_state = {term, vote}});
}

static void on_entry(void *context, uint64_t index, uint64_t term, uint32_t type, const char *data,
                     size_t len)
{
    step(context, &(struct node_event){.type = NODE_EVENT_RECOVERED_ENTRY,
                                       .recovered_entry = {index, term, type, {data, len}}});
}

/* As the daemon does. */
static void end_turn(struct machine *machine)
{
    if (machine->hurry)
        wal_flush(machine->wal);
    else
        wal_flush_later(machine->wal);
    machine->hurry = false;
}

static void on_durable(void *context, uint64_t write)
{
    step(context, &(struct node_event){.type = NODE_EVENT_PERSISTED, .persisted = {write}});
    end_turn(context);
}

static void on_failed(void *context, int error, const char *file)
{
    (void)error;
    (void)file;
    step(context, &(struct node_event){.type = NODE_EVENT_PERSIST_FAILED});
}

static const struct wal_handler handler = {on_state, on_entry, on_durable, on_failed};

static void drop_log(struct machine *machine, uint64_t index)
{
    step(machine, &(struct node_event){.type = NODE_EVENT_COMPACTED, .compacted = {index}});
    wal_drop_until(machine->wal, index);
}

static void on_snapshot(void *context, uint64_t index)
{
    struct machine *machine = context;
    machine->snapshots_made++;
    drop_log(machine, index);
}

static void on_snapshot_failed(void *context, const char *why)
{
    struct machine *machine = context;
    (void)why;
    machine->snapshots_failed++;
}

static const struct snapshot_handler snapshot_handler = {on_snapshot, on_snapshot_failed};

/* The snapshot, and the log behind it. */
static int recover(struct machine *machine, struct snapshot_info *ret_snapshot, char *message,
                   size_t size)
{
    int error =
        snapshot_load(&machine->calls_of_disk, "/log", machine->node, ret_snapshot, message, size);
    if (error)
        return error;
    if (ret_snapshot->index) {
        machine->snapshots_loaded++;
        step(machine,
             &(struct node_event){.type = NODE_EVENT_RECOVERED_SNAPSHOT,
                                  .recovered_snapshot = {ret_snapshot->index, ret_snapshot->term}});
    }
    struct wal_options options = {.segment_bytes = machine->has_snapshots ? SEGMENT_BYTES : 0,
                                  .snapshot_index = ret_snapshot->index};
    error = wal_open(&machine->loop, &machine->calls_of_disk, "/log", &options, &handler, machine,
                     message, size, &machine->wal);
    char byte;
    machine->dropped +=
        !error && ret_snapshot->index &&
        !powerless_disk_peek(machine->disk, "/log/log-0000000000000001", 0, &byte, 1);
    return error;
}

/* What a disk does that lies, to see that lies are found out. */
static int sync_nothing(void *context, int file)
{
    (void)context;
    (void)file;
    return 0;
}

/* Starts a daemon. False where the power failed meanwhile. */
static bool boot(struct machine *machine)
{
    char message[256];
    struct node_config config = {.id = 1,
                                 .incarnation = ++machine->incarnation,
                                 .boot_id = {1},
                                 .ttl_ms = 10000,
                                 .op_timeout_ms = 5000};
    machine->memory = calloc(1, node_size(&bench_limits));
    machine->node = node_init(machine->memory, &bench_limits, &config);
    machine->ready = machine->failed = false;
    memset(machine->calls, 0, sizeof machine->calls);
    memset(machine->inode, 0, sizeof machine->inode);
    struct snapshot_info snapshot;
    int error = recover(machine, &snapshot, message, sizeof message);
    if (error) {
        if (!powerless_disk_stopped(machine->disk)) {
            check(machine, false, "the log opens after a loss of power");
            tap_note("%s", message);
        }
        return false;
    }
    step(machine, &(struct node_event){.type = NODE_EVENT_START});
    end_turn(machine);
    while (!machine->ready && !machine->failed)
        uv_run(&machine->loop, UV_RUN_ONCE);
    if (machine->ready && machine->has_snapshots) {
        static const struct snapshot_options options = {.log_bytes = SNAPSHOT_LOG_BYTES,
                                                        .ahead_bytes = RESERVE_AHEAD_BYTES,
                                                        .in_process = true};
        error = snapshot_writer_open(&machine->loop, &machine->calls_of_disk, "/log", &options,
                                     &snapshot, machine->node, &snapshot_handler, machine,
                                     &machine->snapshots);
        assert(!error);
        if (snapshot.index)
            drop_log(machine, snapshot.index);
    }
    return machine->ready;
}

static void die(struct machine *machine)
{
    snapshot_writer_close(machine->snapshots);
    machine->snapshots = NULL;
    wal_close(machine->wal);
    machine->wal = NULL;
    uv_run(&machine->loop, UV_RUN_DEFAULT);
    free(machine->memory);
    machine->memory = NULL;
}

static void request(struct machine *machine, uint32_t slot, struct node_request request,
                    uint32_t lock)
{
    uint32_t pid = ++machine->next_pid;
    machine->calls[slot] = (struct call){true, request.op, lock, pid};
    request.slot = slot;
    request.process = (struct process){.pid = pid, .start = pid, .comm = "caller"};
    step(machine, &(struct node_event){.type = NODE_EVENT_REQUEST, .request = request});
}

static void release_one(struct machine *machine)
{
    struct acknowledged *acknowledged = &machine->acknowledged;
    size_t i = random_below(HELD_MAX);
    if (!acknowledged->held[i].handle)
        return;
    struct node_request release = {.slot = NODE_NO_SLOT,
                                   .op = NODE_OP_RELEASE,
                                   .inode = acknowledged->held[i].inode,
                                   .handle = acknowledged->held[i].handle};
    step(machine, &(struct node_event){.type = NODE_EVENT_REQUEST, .request = release});
    step(machine, &(struct node_event){.type = NODE_EVENT_FORGET,
                                       .forget = {acknowledged->held[i].inode, 1}});
    acknowledged->held[i].handle = 0;
    machine->releases++;
}

/* So that the log is soon long enough for snapshots. */
static void write_one(struct machine *machine, uint32_t slot)
{
    static const char text[LIMIT_CONTENT_BYTES];
    const struct acknowledged *acknowledged = &machine->acknowledged;
    size_t i = random_below(HELD_MAX);
    if (!acknowledged->held[i].handle)
        return;
    request(machine, slot,
            (struct node_request){.op = NODE_OP_WRITE,
                                  .inode = acknowledged->held[i].inode,
                                  .handle = acknowledged->held[i].handle,
                                  .write = {.data = {text, sizeof text}}},
            acknowledged->held[i].lock);
}

/* A few requests of a loop turn. */
static void work(struct machine *machine)
{
    for (uint32_t n = random_below(6); n; n--) {
        uint32_t slot = random_below(SLOTS);
        uint32_t lock = random_below(LOCKS);
        struct span name = {&"abcdef"[lock], 1};
        struct span file = {&"xyz"[random_below(3)], 1};
        uint32_t what = random_below(10);
        if (machine->calls[slot].busy)
            continue;
        for (int i = 0; i < 8 && machine->has_snapshots && !machine->calls[slot].busy; i++)
            write_one(machine, slot);
        if (machine->calls[slot].busy)
            continue;
        if (what < 4) {
            for (int i = 0; i < 8; i++)
                release_one(machine);
        } else if (!machine->inode[lock] && what < 7) {
            machine->acknowledged.lock_unsure[lock]++;
            request(machine, slot,
                    (struct node_request){
                        .op = NODE_OP_MKDIR, .inode = NODE_ROOT_INODE, .name = name, .mode = 0777},
                    lock);
        } else if (machine->inode[lock] && what < 9) {
            request(machine, slot,
                    (struct node_request){.op = NODE_OP_CREATE,
                                          .inode = machine->inode[lock],
                                          .name = file,
                                          .mode = 0600,
                                          .open = {.exclusive = true}},
                    lock);
        } else if (machine->inode[lock] && what == 9 && random_below(4) == 0) {
            machine->acknowledged.lock_unsure[lock]++;
            request(
                machine, slot,
                (struct node_request){.op = NODE_OP_RMDIR, .inode = NODE_ROOT_INODE, .name = name},
                lock);
            machine->inode[lock] = 0;
        }
    }
    end_turn(machine);
}

/* Whether the new incarnation found the claim of a process, and ended it. */
static bool was_found(struct machine *machine, uint64_t inode, uint32_t pid)
{
    struct process process;
    for (size_t n = 0; node_lost_process(machine->node, inode, n, &process); n++)
        if (process.pid == pid)
            return true;
    return false;
}

static void compare_held(struct machine *machine, uint32_t lock)
{
    struct acknowledged *acknowledged = &machine->acknowledged;
    request(machine, 0,
            (struct node_request){
                .op = NODE_OP_LOOKUP, .inode = NODE_ROOT_INODE, .name = {&"abcdef"[lock], 1}},
            lock);
    for (size_t i = 0; i < HELD_MAX; i++)
        if (acknowledged->held[i].handle && acknowledged->held[i].lock == lock)
            check(machine, was_found(machine, machine->inode[lock], acknowledged->held[i].pid),
                  "every acknowledged claim that was held is in the log");
}

/* What was told to callers before the power failed must be true of what is left. */
static void compare(struct machine *machine)
{
    struct acknowledged *acknowledged = &machine->acknowledged;
    struct lock_table_counts counts;
    lock_table_get_counts(node_table(machine->node), &counts);
    check(machine, counts.token >= acknowledged->max_token, "every acknowledged token is known");
    for (uint32_t lock = 0; lock < LOCKS; lock++) {
        uint64_t id = lock_table_find(node_table(machine->node), LOCK_TABLE_ROOT,
                                      (struct span){&"abcdef"[lock], 1});
        struct lock_view view;
        bool there = id && lock_table_get_lock(node_table(machine->node), id, &view);
        if (!acknowledged->lock_unsure[lock])
            check(machine, there == acknowledged->lock[lock],
                  "locks are there, or not, as acknowledged");
        if (there && !acknowledged->lock_unsure[lock])
            check(machine, view.last_token >= acknowledged->lock_token[lock],
                  "every acknowledged grant is in the log");
        if (there)
            compare_held(machine, lock);
        acknowledged->lock[lock] = there;
        acknowledged->lock_unsure[lock] = 0;
        acknowledged->lock_token[lock] = 0;
    }
    check(machine, counts.claims == 0, "the new incarnation ended all claims");
    memset(acknowledged->held, 0, sizeof acknowledged->held);
}

/* Until `cuts` times the power has failed, or something was lost. */
static struct machine run(uint64_t cuts, bool lying, uint64_t *ret_cuts, uint64_t *ret_boots_cut)
{
    struct machine machine = {0};
    uint64_t cut = 0, boots_cut = 0;
    while (cut < cuts && !machine.broken) {
        machine = (struct machine){.incarnation = machine.incarnation,
                                   .grants = machine.grants,
                                   .releases = machine.releases,
                                   .has_snapshots = !machine.has_snapshots,
                                   .snapshots_made = machine.snapshots_made,
                                   .snapshots_failed = machine.snapshots_failed,
                                   .snapshots_loaded = machine.snapshots_loaded,
                                   .dropped = machine.dropped};
        uv_loop_init(&machine.loop);
        machine.disk = powerless_disk_new(random_state);
        machine.calls_of_disk = *powerless_disk_calls(machine.disk);
        if (lying)
            machine.calls_of_disk.sync = sync_nothing;
        for (int i = 0; i < CUTS_PER_DISK && !machine.broken; i++) {
            static const uint32_t reaches[] = {20, 100, 400, 600};
            uint32_t reach = reaches[random_below(4)] << (machine.has_snapshots ? 1 : 0);
            powerless_disk_stop_at(machine.disk, 1 + random_below(reach));
            bool ready = boot(&machine);
            if (ready) {
                compare(&machine);
                for (int turn = 0; turn < 400 && !machine.failed && !machine.broken; turn++) {
                    work(&machine);
                    uv_run(&machine.loop, UV_RUN_NOWAIT);
                }
            }
            boots_cut += !ready;
            die(&machine);
            powerless_disk_cut(machine.disk, random_state);
            cut++;
        }
        if (!machine.broken) {
            powerless_disk_stop_at(machine.disk, 0);
            check(&machine, boot(&machine), "a daemon starts after the last loss of power");
            if (!machine.broken)
                compare(&machine);
            die(&machine);
        }
        powerless_disk_free(machine.disk);
        int error = uv_loop_close(&machine.loop);
        assert(!error);
    }
    *ret_cuts = cut;
    *ret_boots_cut = boots_cut;
    return machine;
}

int main(void)
{
    const char *seed_text = getenv("SEED");
    const char *cuts_text = getenv("CUTS");
    uint64_t seed = seed_text ? strtoull(seed_text, NULL, 0) : uv_hrtime();
    uint64_t cuts = cuts_text ? strtoull(cuts_text, NULL, 0) : CUTS;
    tap_note("SEED=%llu CUTS=%llu", (unsigned long long)seed, (unsigned long long)cuts);
    random_state = seed | 1;
    setenv("UV_THREADPOOL_SIZE", "1", 1); /* the same order of calls for the same seed */

    uint64_t cut, boots_cut;
    struct machine machine = run(cuts, false, &cut, &boots_cut);
    tap_ok(!machine.broken, "%s",
           machine.broken ? machine.broken : "no loss of power lost anything");
    tap_note("%llu cuts, %llu of them while starting; %llu grants, %llu releases",
             (unsigned long long)cut, (unsigned long long)boots_cut,
             (unsigned long long)machine.grants, (unsigned long long)machine.releases);
    tap_note(
        "%llu snapshots, %llu that failed; %llu starts from one, %llu with a part of the log gone",
        (unsigned long long)machine.snapshots_made, (unsigned long long)machine.snapshots_failed,
        (unsigned long long)machine.snapshots_loaded, (unsigned long long)machine.dropped);
    tap_ok(cut >= cuts && machine.grants > cut / 2 && boots_cut > 0,
           "it cut, and there was work to cut");
    tap_ok(machine.snapshots_made > cut / 4 && machine.snapshots_failed > 0 &&
               machine.dropped > cut / 16,
           "it cut while there were snapshots");

    machine = run(cuts, true, &cut, &boots_cut);
    tap_ok(machine.broken != NULL, "on a disk whose fdatasync does nothing, it is noticed");
    tap_note("after %llu cuts: %s", (unsigned long long)cut,
             machine.broken ? machine.broken : "nothing");
    return tap_done();
}

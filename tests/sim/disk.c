/*
 * Disks. A write is handed over, then synced together with others, and durable only then. A crash
 * keeps some of what was not durable: the writes up to one of them, which may be torn. A server
 * that starts reads all that is left and makes it durable first (raft.h, duty 2), and may crash
 * again meanwhile.
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "sim.h"

static void write_release(struct disk_write *write)
{
    free(write->entries);
    write->entries = NULL;
}

void disk_write(struct server *server, struct disk_write write)
{
    struct disk *disk = &server->disk;

    disk->pending = sim_grow(disk->pending, &disk->pending_capacity, disk->pending_count + 1,
                             sizeof(*disk->pending));
    disk->pending[disk->pending_count++] = write;
    server->sim->stats->writes++;
    disk_go_on(server);
}

void disk_go_on(struct server *server)
{
    struct sim *sim = server->sim;
    struct disk *disk = &server->disk;
    const struct plan *plan = &sim->plan;
    uint64_t us;
    bool failed;

    if (disk->syncing > 0 || disk->pending_count == 0 || server->stops ||
        server->state != SERVER_UP || server->paused_until > sim->now_us)
        return;
    disk->syncing = disk->pending_count;
    if (rng_below(&sim->rng, 4) == 0)
        disk->syncing = rng_between(&sim->rng, 1, disk->pending_count);
    us = rng_skewed(&sim->rng, plan->sync_min_us, plan->sync_max_us);
    if (!sim->recovering && sim->now_us < disk->slow_until_us)
        us = us * rng_between(&sim->rng, 10, 50) + 10000;
    failed = disk->fail_next;
    disk->fail_next = false;
    schedule_add(
        sim, sim->now_us + us,
        (struct event){
            .type = EVENT_SYNCED, .slot = server->slot, .boot = server->boot, .failed = failed});
}

static void make_durable(struct disk *disk, const struct disk_write *write)
{
    switch (write->type) {
    case DISK_STATE:
        disk->state.term = write->term;
        disk->state.vote = write->vote;
        disk->states = sim_grow(disk->states, &disk->states_capacity, disk->states_count + 1,
                                sizeof(*disk->states));
        disk->states[disk->states_count++] = disk->state;
        break;
    case DISK_ENTRIES:
        entries_write(&disk->log, write->index, write->entries, write->count);
        break;
    case DISK_RESET:
        entries_reset(&disk->log, write->index, write->term);
        break;
    }
}

/* Not before the writes that came first are durable. */
static void drop_log(struct disk *disk)
{
    if (disk->pending_count == 0 && disk->snapshot != NULL &&
        disk->drop_wanted <= disk->snapshot->index && disk->drop_wanted <= disk->log.last) {
        entries_drop(&disk->log, disk->drop_wanted);
        disk->drop_wanted = 0;
    }
}

/* The first `count` pending writes are done with. */
static void forget_pending(struct disk *disk, size_t count)
{
    if (count == 0)
        return;
    for (size_t i = 0; i < count; i++)
        write_release(&disk->pending[i]);
    disk->pending_count -= count;
    memmove(disk->pending, disk->pending + count, disk->pending_count * sizeof(*disk->pending));
}

void disk_synced(struct server *server, bool failed)
{
    struct sim *sim = server->sim;
    struct disk *disk = &server->disk;
    uint64_t first;
    uint64_t last;

    assert(disk->syncing > 0 && disk->syncing <= disk->pending_count);
    first = disk->pending[0].number;
    last = disk->pending[disk->syncing - 1].number;
    if (failed) {
        /* They stay pending: what is left of them, a crash decides. */
        sim->stats->writes_failed++;
        server->stops = true;
        server_post(server, (struct item){.type = ITEM_PERSIST_FAILED});
        return;
    }
    for (size_t i = 0; i < disk->syncing; i++)
        make_durable(disk, &disk->pending[i]);
    forget_pending(disk, disk->syncing);
    disk->syncing = 0;
    drop_log(disk);
    if (!sim->plan.join_reports)
        for (uint64_t number = first; number < last; number++)
            server_post(server, (struct item){.type = ITEM_PERSISTED, .write = number});
    else if (first < last)
        sim->stats->writes_joined++;
    server_post(server, (struct item){.type = ITEM_PERSISTED, .write = last});
    disk_go_on(server);
}

void disk_store_snapshot(struct server *server, struct blob *blob, bool own)
{
    struct sim *sim = server->sim;
    uint64_t us = rng_skewed(&sim->rng, sim->plan.sync_min_us, sim->plan.sync_max_us * 10);

    schedule_add(sim, sim->now_us + us,
                 (struct event){.type = own ? EVENT_SNAPSHOT_STORED : EVENT_SNAPSHOT_RECEIVED,
                                .slot = server->slot,
                                .boot = server->boot,
                                .blob = blob});
}

/* A file, renamed into place: there is the old one or the new one. */
void disk_snapshot_stored(struct server *server, struct blob *blob, bool own)
{
    struct disk *disk = &server->disk;
    struct machine machine;
    struct raft_member members[RAFT_MEMBERS_MAX];
    size_t members_count;
    bool newer = disk->snapshot == NULL || disk->snapshot->index < blob->index;
    bool good = machine_load(&machine, blob, members, &members_count);

    assert(!own || good);
    /* A disk error on the way: nothing was promised yet. */
    if (!own && rng_below(&server->sim->rng, 20) == 0)
        good = false;
    if (!newer || !good) {
        if (!own)
            server_post(server, (struct item){.type = ITEM_SNAPSHOT_REFUSED});
        blob_unref(blob);
        return;
    }
    blob_unref(disk->snapshot);
    blob->own = own;
    disk->snapshot = blob_ref(blob);
    server_post(server, (struct item){.type = own ? ITEM_SNAPSHOT_STORED : ITEM_SNAPSHOT_RECEIVED,
                                      .blob = blob});
}

void disk_drop_log(struct server *server, uint64_t base)
{
    /* As whole files are dropped: often less than may be. */
    if (rng_below(&server->sim->rng, 3) != 0)
        server->disk.drop_wanted = base;
    drop_log(&server->disk);
}

void disk_crash(struct server *server)
{
    struct sim *sim = server->sim;
    struct disk *disk = &server->disk;
    size_t kept = rng_between(&sim->rng, 0, disk->pending_count);
    size_t gone;

    disk->syncing = 0;
    disk->fail_next = false;
    disk->drop_wanted = 0;
    if (kept < disk->pending_count && disk->pending[kept].type == DISK_ENTRIES &&
        disk->pending[kept].count > 1 && rng_below(&sim->rng, 2) == 0) {
        disk->pending[kept].count = rng_between(&sim->rng, 1, disk->pending[kept].count - 1);
        sim->stats->writes_torn++;
        kept++;
    } else if (kept < disk->pending_count && rng_below(&sim->rng, 4) == 0) {
        disk->pending[kept].rotten = true;
        sim->stats->writes_rotten++;
        kept = disk->pending_count;
    }
    gone = disk->pending_count - kept;
    for (size_t i = kept; i < disk->pending_count; i++)
        write_release(&disk->pending[i]);
    disk->pending_count = kept;
    sim->stats->writes_gone += gone;
    sim->stats->writes_left_by_crash += kept;
}

void disk_recover(struct server *server)
{
    struct disk *disk = &server->disk;

    for (size_t i = 0; i < disk->pending_count && !disk->pending[i].rotten; i++)
        make_durable(disk, &disk->pending[i]);
    forget_pending(disk, disk->pending_count);
    disk->syncing = 0;
}

void disk_wipe(struct server *server)
{
    struct disk *disk = &server->disk;

    forget_pending(disk, disk->pending_count);
    free(disk->pending);
    free(disk->states);
    entries_destroy(&disk->log);
    blob_unref(disk->snapshot);
    memset(disk, 0, sizeof(*disk));
}

bool disk_voted(const struct disk *disk, uint64_t term, uint64_t vote)
{
    for (size_t i = disk->states_count; i > 0 && disk->states[i - 1].term >= term; i--)
        if (disk->states[i - 1].term == term && disk->states[i - 1].vote == vote)
            return true;
    return false;
}

bool disk_has(const struct disk *disk, uint64_t index, uint64_t term)
{
    if (disk->snapshot != NULL && index <= disk->snapshot->index)
        return true;
    return entries_term_at(&disk->log, index) == term;
}

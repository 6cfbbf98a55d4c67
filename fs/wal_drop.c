/*
 * Dropping what a snapshot covers: whole segments from the front of the log, oldest first, each
 * gone for good before the next one goes, so that at any moment the files that are left are a log.
 */
#include "wal_internal.h"

#include <errno.h>
#include <string.h>

static void drop_on_pool(uv_work_t *request);
static void dropped(uv_work_t *request, int status);

void wal_drop_until(struct wal *wal, uint64_t index)
{
    assert(index && index <= wal->last_index);
    if (index > wal->drop_index)
        wal->drop_index = index;
    wal__drop(wal);
}

/* The first segment that something is still to be written to. */
static size_t first_busy(const struct wal *wal)
{
    if (wal->writing->batch)
        return wal->writing->batch->segment;
    return wal->queue ? wal->queue->segment : wal->segment;
}

static bool has_state_from(const struct wal *wal, size_t segment)
{
    for (size_t i = segment; i < wal->segments_count; i++)
        if (wal->segments[i].has_state)
            return true;
    return !wal->has_state;
}

void wal__drop(struct wal *wal)
{
    struct wal__work *work = wal->dropping;

    if (!wal->drop_index || work->stage != WAL__IDLE || wal->error || wal->out_of_memory ||
        uv_hrtime() / 1000000 < wal->drop_retry_at_ms)
        return;
    size_t count = wal__find_segment(wal, wal->drop_index);
    if (count == 0) {
        wal->drop_index = 0;
        return;
    }
    if (count > first_busy(wal))
        count = first_busy(wal);
    if (count == 0)
        return; /* until a batch is written */
    if (!has_state_from(wal, count)) {
        if (!wal->state_queued && wal_room(wal) > 0) {
            wal->state_queued = true;
            wal__append_state_again(wal);
            wal_flush(wal);
        }
        return; /* until it is durable */
    }
    work->error = 0;
    work->first_number = wal->segments[0].number;
    work->count = count;
    work->dropped = 0;
    work->stage = WAL__ON_POOL;
    int error = uv_queue_work(wal->loop, &work->request, drop_on_pool, dropped);
    assert(!error);
}

static void drop_on_pool(uv_work_t *request)
{
    struct wal__work *work = request->data;
    const struct disk *disk = work->wal->disk;
    const char *directory = work->wal->directory;

    while (work->dropped < work->count && !work->error) {
        struct wal__path path = wal__path(directory, work->first_number + work->dropped, "");
        work->error = disk->unlink(disk->context, path.text);
        if (!work->error || work->error == -ENOENT)
            work->error = disk->sync_directory(disk->context, directory);
        if (!work->error)
            work->dropped++;
    }
    uv_sem_post(&work->done);
}

/* Takes the first segments out of the list. */
static void forget_segments(struct wal *wal, size_t count)
{
    assert(count <= first_busy(wal));
    for (size_t i = 0; i < count; i++)
        if (wal->segments[i].file >= 0)
            wal->disk->close(wal->disk->context, wal->segments[i].file);
    wal->segments_count -= count;
    memmove(wal->segments, wal->segments + count, wal->segments_count * sizeof *wal->segments);
    wal->segment -= count;
    if (wal->writing->batch)
        wal->writing->batch->segment -= count;
    for (struct wal__batch *batch = wal->queue; batch; batch = batch->next)
        batch->segment -= count;
}

static void dropped(uv_work_t *request, int status)
{
    struct wal__work *work = request->data;
    struct wal *wal = work->wal;

    if (!wal) {
        wal__free_work(work);
        return;
    }
    assert(status == 0); /* only wal_close() cancels */
    (void)status;
    uv_sem_wait(&work->done);
    work->stage = WAL__IDLE;
    forget_segments(wal, work->dropped);
    if (work->error)
        wal->drop_retry_at_ms = uv_hrtime() / 1000000 + WAL__RETRY_MS;
    wal__drop(wal);
}

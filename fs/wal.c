/* The log on disk: appending, batches, and the segments that are made ahead. */
#include "wal_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum {
    BATCH_BYTES_FIRST = 16 << 10,            /* of its buffer, which then doubles */
    BATCH_BYTES_KEPT = 256 << 10,            /* larger buffers are given back after use */
    START_BYTES = 2 * WAL__RECORD_BYTES_MAX, /* of room, for what every start appends */
};

static_assert((int)LIMIT_LOG_RESERVE_BYTES >= 2 * (int)START_BYTES, "many starts on a full disk");

static void write_on_pool(uv_work_t *request);
static void written(uv_work_t *request, int status);
static void make_on_pool(uv_work_t *request);
static void made(uv_work_t *request, int status);

static bool grow(void **items, size_t *capacity, size_t count, size_t item_bytes)
{
    if (count < *capacity)
        return true;
    size_t larger = *capacity ? *capacity * 2 : 16;
    void *moved = realloc(*items, larger * item_bytes);
    if (!moved)
        return false;
    *items = moved;
    *capacity = larger;
    return true;
}

/* Opening and closing */

static struct wal__work *new_work(struct wal *wal)
{
    struct wal__work *work = calloc(1, sizeof *work);
    if (!work)
        return NULL;
    if (uv_sem_init(&work->done, 0)) {
        free(work);
        return NULL;
    }
    work->wal = wal;
    work->request.data = work;
    return work;
}

/* A timer is freed when the loop has closed it, which may be after the log is gone. */
static uv_timer_t *new_timer(struct wal *wal)
{
    uv_timer_t *timer = malloc(sizeof *timer);
    if (!timer)
        return NULL;
    uv_timer_init(wal->loop, timer);
    timer->data = wal;
    return timer;
}

static void free_timer(uv_handle_t *timer)
{
    free(timer);
}

void wal__free_work(struct wal__work *work)
{
    uv_sem_destroy(&work->done);
    free(work);
}

static struct wal__segment next_segment(const struct wal *wal)
{
    size_t count = wal->segments_count;
    return (struct wal__segment){
        .number = count ? wal->segments[count - 1].number + 1 : 1,
        .size = wal->segment_bytes,
        .file = -1,
    };
}

/* Blocks. For wal_open() only. */
static int add_segment(struct wal *wal)
{
    struct wal__segment segment = next_segment(wal);
    if (!wal__reserve_segment(wal))
        return -ENOMEM;
    int error = wal__make_segment(wal->disk, wal->directory, &segment);
    if (!error)
        wal->segments[wal->segments_count++] = segment;
    return error;
}

/* The reserve is there for starts, too: on a full disk one goes on with what is left of it. An
 * empty log also gets a segment ahead, where there is room. */
static int prepare_room(struct wal *wal, char *message, size_t message_size)
{
    bool is_new = wal->segments_count == 0;
    int error = 0;

    while (!error && wal_room(wal) < LIMIT_LOG_RESERVE_BYTES)
        error = add_segment(wal);
    if (!error && is_new)
        (void)add_segment(wal); /* made later where this fails */
    if (!error || wal_room(wal) >= START_BYTES)
        return 0;
    wal__say(message, message_size, "%s: cannot make a file of %llu bytes for the log: %s",
             wal->directory, (unsigned long long)wal->segment_bytes, strerror(-error));
    return error == -EDQUOT ? -ENOSPC : error;
}

int wal_open(uv_loop_t *loop, const struct disk *disk, const char *directory,
             const struct wal_options *options, const struct wal_handler *handler, void *context,
             char *message, size_t message_size, struct wal **ret_wal)
{
    static const struct wal_options defaults;
    uint64_t segment_bytes;
    int error = -ENOMEM;

    if (!options)
        options = &defaults;
    segment_bytes = options->segment_bytes ? options->segment_bytes : LIMIT_SEGMENT_BYTES;
    assert(segment_bytes >= WAL__SEGMENT_HEADER_BYTES + 2 * WAL__RECORD_BYTES_MAX);
    assert(segment_bytes % WAL__ALIGNMENT == 0);
    wal__say(message, message_size, "%s: out of memory", directory);
    if (strlen(directory) + WAL__NAME_BYTES > sizeof((struct wal__path *)0)->text) {
        wal__say(message, message_size, "%s: the name is too long", directory);
        return -ENAMETOOLONG;
    }
    struct wal *wal = calloc(1, sizeof *wal);
    if (!wal)
        return error;
    wal->loop = loop;
    wal->disk = disk;
    wal->handler = handler;
    wal->context = context;
    wal->segment_bytes = segment_bytes;
    wal->snapshot_index = options->snapshot_index;
    wal->offset = WAL__SEGMENT_HEADER_BYTES;
    wal->number = 1;
    wal->directory = strdup(directory);
    wal->writing = new_work(wal);
    wal->making = new_work(wal);
    wal->dropping = new_work(wal);
    wal->hurrier = new_timer(wal);
    if (wal->directory && wal->writing && wal->making && wal->dropping && wal->hurrier)
        error = wal__recover(wal, message, message_size);
    if (!error)
        error = prepare_room(wal, message, message_size);
    if (error) {
        wal_close(wal);
        return error;
    }
    *ret_wal = wal;
    return 0;
}

/* Returns whether the pool did its part of something that nobody has looked at. */
static bool abandon(struct wal__work *work)
{
    bool is_done = false;

    if (!work)
        return false;
    if (work->stage == WAL__IDLE) {
        wal__free_work(work);
        return false;
    }
    if (work->stage == WAL__ON_POOL && uv_cancel((uv_req_t *)&work->request) != 0) {
        uv_sem_wait(&work->done);
        is_done = true;
    }
    work->wal = NULL; /* its callback frees it */
    return is_done;
}

static void free_batch(struct wal__batch *batch)
{
    if (batch)
        free(batch->bytes);
    free(batch);
}

void wal_close(struct wal *wal)
{
    struct wal__batch *in_flight;

    if (!wal)
        return;
    in_flight = wal->writing ? wal->writing->batch : NULL;
    abandon(wal->writing);
    free_batch(in_flight);
    if (abandon(wal->making) && !wal->making->error)
        wal->disk->close(wal->disk->context, wal->making->segment.file);
    abandon(wal->dropping);
    if (wal->hurrier)
        uv_close((uv_handle_t *)wal->hurrier, free_timer);
    while (wal->queue) {
        struct wal__batch *batch = wal->queue;
        wal->queue = batch->next;
        free_batch(batch);
    }
    free_batch(wal->idle_batch);
    for (size_t i = 0; i < wal->segments_count; i++) {
        if (wal->segments[i].file >= 0)
            wal->disk->close(wal->disk->context, wal->segments[i].file);
    }
    free(wal->segments);
    free(wal->cuts);
    free(wal->directory);
    free(wal);
}

/* Appending */

bool wal__note_entry(struct wal *wal, size_t segment, uint64_t number, uint64_t index)
{
    void *cuts = wal->cuts;

    if (!wal->segments[segment].first_index)
        wal->segments[segment].first_index = index;
    if (index <= wal->last_index) {
        while (wal->cuts_count && wal->cuts[wal->cuts_count - 1].index >= index)
            wal->cuts_count--;
        if (!grow(&cuts, &wal->cuts_capacity, wal->cuts_count, sizeof *wal->cuts))
            return false;
        wal->cuts = cuts;
        wal->cuts[wal->cuts_count++] = (struct wal__cut){.number = number, .index = index};
    }
    wal->last_index = index;
    return true;
}

static struct wal__batch *new_batch(struct wal *wal)
{
    struct wal__batch *batch = wal->idle_batch;
    wal->idle_batch = NULL;
    if (!batch)
        batch = calloc(1, sizeof *batch);
    if (!batch)
        return NULL;
    *batch = (struct wal__batch){
        .segment = wal->segment,
        .offset = wal->offset,
        .first_number = wal->number,
        .capacity = batch->capacity,
        .bytes = batch->bytes,
    };
    if (wal->queue_tail)
        wal->queue_tail->next = batch;
    else
        wal->queue = batch;
    wal->queue_tail = batch;
    return batch;
}

/* The batch that the next record goes into, with room for it. NULL where memory is out. */
static struct wal__batch *batch_for(struct wal *wal, size_t bytes)
{
    struct wal__batch *batch = wal->queue_tail;
    if (!batch || batch->segment != wal->segment)
        batch = new_batch(wal);
    if (!batch)
        return NULL;
    if (batch->len + bytes <= batch->capacity)
        return batch;
    size_t capacity = batch->capacity ? batch->capacity : BATCH_BYTES_FIRST;
    while (capacity < batch->len + bytes)
        capacity *= 2;
    char *moved = realloc(batch->bytes, capacity);
    if (!moved)
        return NULL;
    batch->bytes = moved;
    batch->capacity = capacity;
    return batch;
}

static void enter_next_segment(struct wal *wal, uint64_t write)
{
    /* The caller has asked wal_room(). */
    assert(wal->segment + 1 < wal->segments_count);
    wal->segment++;
    wal->offset = WAL__SEGMENT_HEADER_BYTES;
    if (wal->queue_tail && wal->queue_tail->write == write) {
        wal->queue_tail->split = true;
        wal->queue_tail->write = wal->previous_write;
    }
    wal_want_room(wal, wal->wanted_bytes);
}

static void append(struct wal *wal, uint64_t write, struct wal__record *record)
{
    size_t bytes = wal__record_bytes(record->len);

    assert(write >= wal->write);
    assert(record->len <= LIMIT_COMMAND_BYTES);
    if (wal->error || wal->out_of_memory)
        return;
    if (wal->offset + bytes > wal->segments[wal->segment].size)
        enter_next_segment(wal, write);
    struct wal__batch *batch = batch_for(wal, bytes);
    if (!batch || (record->kind == WAL__ENTRY &&
                   !wal__note_entry(wal, wal->segment, wal->number, record->index))) {
        wal->out_of_memory = true;
        return;
    }
    record->number = wal->number;
    record->batch = batch->first_number;
    wal__encode_record(record, wal->segments[wal->segment].mark, batch->bytes + batch->len);
    batch->has_state = batch->has_state || record->kind == WAL__STATE;
    wal->written_bytes += bytes;
    batch->len += bytes;
    batch->write = write;
    wal->number++;
    wal->offset += bytes;
    if (write != wal->write)
        wal->previous_write = wal->write;
    wal->write = write;
}

void wal_append_state(struct wal *wal, uint64_t write, uint64_t term, uint64_t vote)
{
    wal->has_state = true;
    wal->term = term;
    wal->vote = vote;
    append(wal, write, &(struct wal__record){.kind = WAL__STATE, .term = term, .vote = vote});
}

/* As a part of the last write: nobody asked for it. */
void wal__append_state_again(struct wal *wal)
{
    assert(wal->has_state && wal->write);
    wal_append_state(wal, wal->write, wal->term, wal->vote);
}

void wal_append_entry(struct wal *wal, uint64_t write, uint64_t index, uint64_t term, uint32_t type,
                      const char *data, size_t len)
{
    assert(index &&
           (!wal->last_index || index <= wal->last_index + 1 || wal->error || wal->out_of_memory));
    append(wal, write,
           &(struct wal__record){
               .kind = WAL__ENTRY,
               .index = index,
               .term = term,
               .entry_type = type,
               .data = data,
               .len = len,
           });
}

/* Writing */

static void write_next(struct wal *wal);

void wal_flush(struct wal *wal)
{
    wal->hurried = wal->queue || wal->out_of_memory;
    write_next(wal);
}

static void on_hurrier(uv_timer_t *timer)
{
    wal_flush(timer->data);
}

void wal_flush_later(struct wal *wal)
{
    if ((wal->queue || wal->out_of_memory) && !wal->hurried &&
        !uv_is_active((uv_handle_t *)wal->hurrier))
        uv_timer_start(wal->hurrier, on_hurrier, LIMIT_UNHURRIED_MS, 0);
}

void wal_settle(struct wal *wal)
{
    uint64_t write = wal->write;

    wal_flush(wal);
    while (!wal->error && wal->reported_write < write)
        uv_run(wal->loop, UV_RUN_ONCE);
}

/* The head of the queue, where it is hurried and nothing is in flight. */
static void write_next(struct wal *wal)
{
    struct wal__work *work = wal->writing;

    if (!wal->hurried || work->stage != WAL__IDLE || wal->error)
        return;
    if (wal->out_of_memory) {
        /* Reported as a failed write, and from the loop as one. */
        work->error = -ENOMEM;
        work->segment = wal->segments[wal->segment];
    } else {
        struct wal__batch *batch = wal->queue;
        wal->queue = batch->next;
        if (!wal->queue) {
            wal->queue_tail = NULL;
            wal->hurried = false;
            uv_timer_stop(wal->hurrier);
        }
        batch->next = NULL;
        work->error = 0;
        work->batch = batch;
        work->segment = wal->segments[batch->segment];
    }
    work->stage = WAL__ON_POOL;
    int error = uv_queue_work(wal->loop, &work->request, write_on_pool, written);
    assert(!error);
}

static void write_on_pool(uv_work_t *request)
{
    struct wal__work *work = request->data;
    const struct disk *disk = work->wal->disk;
    const struct wal__batch *batch = work->batch;

    if (!work->error)
        work->error =
            disk->write(disk->context, work->segment.file, batch->bytes, batch->len, batch->offset);
    if (!work->error)
        work->error = disk->sync(disk->context, work->segment.file);
    uv_sem_post(&work->done);
}

/* The batch is of no more use. */
static void give_back(struct wal *wal, struct wal__batch *batch)
{
    if (!wal->idle_batch && batch && batch->capacity <= BATCH_BYTES_KEPT)
        wal->idle_batch = batch;
    else
        free_batch(batch);
}

/* What lies before the segment that is written to is only read. */
static void close_full_segments(struct wal *wal, size_t segment)
{
    for (size_t i = segment; i > 0 && wal->segments[i - 1].file >= 0; i--) {
        wal->disk->close(wal->disk->context, wal->segments[i - 1].file);
        wal->segments[i - 1].file = -1;
    }
}

static void written(uv_work_t *request, int status)
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
    struct wal__batch *batch = work->batch;
    work->batch = NULL;
    work->stage = WAL__REPORTING;
    if (work->error) {
        struct wal__path path = wal__path(wal->directory, work->segment.number, "");
        free_batch(batch);
        wal->error = work->error;
        wal->handler->failed(wal->context, work->error, path.text);
    } else {
        uint64_t write = batch->write;
        bool has_news = !batch->split || write > wal->reported_write;
        wal->segments[batch->segment].end = batch->offset + batch->len;
        if (batch->has_state) {
            wal->segments[batch->segment].has_state = true;
            wal->state_queued = false;
        }
        close_full_segments(wal, batch->segment);
        give_back(wal, batch);
        if (has_news) {
            wal->reported_write = write;
            wal->handler->durable(wal->context, write);
        }
    }
    if (!work->wal) {
        wal__free_work(work);
        return;
    }
    work->stage = WAL__IDLE;
    wal__drop(wal);
    write_next(wal);
}

/* Room */

bool wal__reserve_segment(struct wal *wal)
{
    void *segments = wal->segments;
    if (!grow(&segments, &wal->segments_capacity, wal->segments_count, sizeof *wal->segments))
        return false;
    wal->segments = segments;
    return true;
}

/* At the end of a segment the record that comes may just not fit. */
uint64_t wal_room(const struct wal *wal)
{
    uint64_t room = 0;

    if (wal->error || wal->out_of_memory)
        return 0;
    for (size_t i = wal->segment; i < wal->segments_count; i++) {
        uint64_t used = i == wal->segment ? wal->offset : WAL__SEGMENT_HEADER_BYTES;
        uint64_t rest = wal->segments[i].size - used;
        if (rest > WAL__RECORD_BYTES_MAX)
            room += rest - WAL__RECORD_BYTES_MAX;
    }
    return room;
}

void wal_want_room(struct wal *wal, uint64_t bytes)
{
    struct wal__work *work = wal->making;
    bool has_spare = wal->segment + 1 < wal->segments_count;

    wal->wanted_bytes = bytes;
    if (work->stage != WAL__IDLE || wal->error || (has_spare && wal_room(wal) >= bytes))
        return;
    uint64_t now_ms = uv_hrtime() / 1000000;
    if (now_ms < wal->retry_at_ms)
        return;
    if (!wal__reserve_segment(wal)) {
        wal->retry_at_ms = now_ms + WAL__RETRY_MS;
        return;
    }
    work->error = 0;
    work->segment = next_segment(wal);
    work->stage = WAL__ON_POOL;
    int error = uv_queue_work(wal->loop, &work->request, make_on_pool, made);
    assert(!error);
}

static void make_on_pool(uv_work_t *request)
{
    struct wal__work *work = request->data;
    work->error = wal__make_segment(work->wal->disk, work->wal->directory, &work->segment);
    uv_sem_post(&work->done);
}

/* No error here is a failure of the log: it only has no more room than before. */
static void made(uv_work_t *request, int status)
{
    struct wal__work *work = request->data;
    struct wal *wal = work->wal;

    if (!wal) {
        wal__free_work(work);
        return;
    }
    assert(status == 0);
    (void)status;
    uv_sem_wait(&work->done);
    work->stage = WAL__IDLE;
    wal->short_of_room = work->error != 0;
    if (work->error) {
        wal->retry_at_ms = uv_hrtime() / 1000000 + WAL__RETRY_MS;
        return;
    }
    wal->segments[wal->segments_count++] = work->segment;
    wal_want_room(wal, wal->wanted_bytes);
}

bool wal_is_short_of_room(const struct wal *wal)
{
    return wal->short_of_room;
}

uint64_t wal_written_bytes(const struct wal *wal)
{
    return wal->written_bytes;
}

uint64_t wal_disk_bytes(const struct wal *wal)
{
    uint64_t bytes = 0;
    for (size_t i = 0; i < wal->segments_count; i++)
        bytes += wal->segments[i].size;
    return bytes;
}
